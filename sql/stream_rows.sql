--
-- Rows of streams: every way in and out, constraints, triggers, any type, any size
--
SET timezone = 'UTC';
SET datestyle = 'ISO';

-- INSERT: defaults, identity, generated columns, RETURNING, CTE, prepared
CREATE TABLE s (id int GENERATED ALWAYS AS IDENTITY, a int DEFAULT 5 CHECK (a > 0),
  b text NOT NULL, c int GENERATED ALWAYS AS (a * 2) STORED,
  ts timestamptz DEFAULT '2026-01-01 00:00') USING stream WITH (event_time = ts);
INSERT INTO s (b) VALUES ('x'), ('y') RETURNING *, tableoid::regclass;
INSERT INTO s (a, b) VALUES (0, 'check');
INSERT INTO s (b) VALUES (NULL);
INSERT INTO s (id, b) VALUES (1, 'identity');
INSERT INTO s (b, ts) VALUES ('z', NULL);
WITH i AS (INSERT INTO s (b) SELECT 'cte ' || g FROM generate_series(1, 3) g
           RETURNING id, c)
  SELECT count(*), sum(c) FROM i;
PREPARE p(int, text) AS INSERT INTO s (a, b) VALUES ($1, $2) RETURNING a, c;
EXECUTE p(7, 'p1');
EXECUTE p(8, 'p2');
DEALLOCATE p;
INSERT INTO s (a, b) SELECT a, 'again ' || b FROM s;
INSERT INTO s (b) SELECT 'none' WHERE false;
SELECT a, b, c, ts FROM s;
-- a view on it, a rule on it
CREATE VIEW v AS SELECT a, b, ts FROM s WHERE a > 5 WITH CHECK OPTION;
INSERT INTO v VALUES (9, 'view', '2026-01-02');
INSERT INTO v VALUES (2, 'view', '2026-01-02');
SELECT * FROM v WHERE b = 'view';
UPDATE v SET b = 'x';
CREATE TABLE r (b text);
CREATE RULE also AS ON INSERT TO s DO ALSO INSERT INTO r VALUES (new.b);
INSERT INTO s (b) VALUES ('rule');
SELECT * FROM r;
DROP TABLE s, r CASCADE;

-- COPY: text, csv, binary, in and out, columns, WHERE, errors
CREATE TABLE s (a int, b text, ts timestamptz) USING stream WITH (event_time = ts);
COPY s FROM stdin;
1	one	2026-01-01 00:00:01+00
2	\N	2026-01-01 00:00:02+00
\.
COPY s (ts, a) FROM stdin WITH (FORMAT csv, HEADER);
ts,a
2026-01-01 00:00:03,3
\.
COPY s FROM stdin WHERE a > 4;
4	four	2026-01-01
5	five	2026-01-01
\.
COPY s FROM stdin;
6	six	2026-01-01
seven	seven	2026-01-01
\.
\set VERBOSITY terse
COPY s FROM stdin;
6	six	2026-01-01
7	seven	\N
\.
\set VERBOSITY default
COPY s TO stdout;
COPY s (b, a) TO stdout WITH (FORMAT csv, HEADER);
COPY (SELECT sum(a) FROM s) TO stdout;
SELECT current_setting('data_directory') || '/stream_rows.bin' AS file \gset
COPY s TO :'file' (FORMAT binary);
CREATE TABLE s2 (LIKE s) USING stream;
COPY s2 FROM :'file' (FORMAT binary);
COPY s2 FROM :'file' (FORMAT binary);
SELECT count(*) FROM s2;
(TABLE s EXCEPT TABLE s2) UNION ALL (TABLE s2 EXCEPT TABLE s);
COPY (SELECT i, 'row ' || i, timestamptz '2026-01-01' + i * interval '1 s'
      FROM generate_series(1, 20000) i) TO :'file' (FORMAT csv);
TRUNCATE s;
COPY s FROM :'file' (FORMAT csv);
SELECT count(*), sum(a), max(b), max(ts) FROM s;
BEGIN;
TRUNCATE s;
COPY s FROM :'file' (FORMAT csv, FREEZE);
SELECT count(*), sum(a) FROM s;
COMMIT;
SELECT count(*), sum(a) FROM s;
DROP TABLE s, s2;

-- triggers: before, after, statement with transition table, deferred
CREATE TABLE s (a int, ts timestamptz) USING stream WITH (event_time = ts);
CREATE TABLE log (n int GENERATED ALWAYS AS IDENTITY, name text, a bigint);
CREATE FUNCTION before_row() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN IF new.a < 0 THEN RETURN NULL; END IF; new.a := new.a + 100; RETURN new; END $$;
CREATE FUNCTION after_row() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN INSERT INTO log (name, a) VALUES (tg_name, new.a); RETURN NULL; END $$;
CREATE FUNCTION after_statement() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN INSERT INTO log (name, a) SELECT tg_name, sum(a) FROM n; RETURN NULL; END $$;
CREATE TRIGGER before BEFORE INSERT ON s FOR EACH ROW EXECUTE FUNCTION before_row();
CREATE TRIGGER after AFTER INSERT ON s FOR EACH ROW WHEN (new.a <> 103)
  EXECUTE FUNCTION after_row();
CREATE TRIGGER statement AFTER INSERT ON s REFERENCING NEW TABLE AS n
  EXECUTE FUNCTION after_statement();
CREATE CONSTRAINT TRIGGER deferred AFTER INSERT ON s DEFERRABLE INITIALLY DEFERRED
  FOR EACH ROW EXECUTE FUNCTION after_row();
BEGIN;
INSERT INTO s VALUES (1, '2026-01-01'), (-1, '2026-01-01'), (3, '2026-01-01');
SAVEPOINT a;
INSERT INTO s VALUES (4, '2026-01-01');
ROLLBACK TO a;
INSERT INTO s VALUES (5, '2026-01-01');
SELECT count(*) FROM s;
SELECT name, a FROM log ORDER BY n;
COMMIT;
SELECT name, a FROM log ORDER BY n;
SELECT a FROM s ORDER BY a;
-- over many chunks, rows that are written and rows that are not
TRUNCATE log, s;
BEGIN;
INSERT INTO s SELECT i, '2026-01-01' FROM generate_series(1, 1000) i;
SAVEPOINT a;
INSERT INTO s SELECT i, '2026-01-01' FROM generate_series(1001, 2500) i;
RELEASE a;
SELECT count(*) FROM s;
INSERT INTO s VALUES (2501, '2026-01-01');
COMMIT;
SELECT name, count(*), count(DISTINCT a), min(a), max(a) FROM log
  WHERE name <> 'statement' GROUP BY name ORDER BY name;
SELECT count(*) FROM s FULL JOIN (SELECT a FROM log WHERE name = 'deferred') l USING (a)
  WHERE s.a IS NULL OR l.a IS NULL;
DROP TABLE s, log;
DROP FUNCTION before_row, after_row, after_statement;

-- foreign keys from it
CREATE TABLE d (id int PRIMARY KEY);
INSERT INTO d VALUES (0), (1), (2), (3);
CREATE TABLE s (id int REFERENCES d DEFERRABLE, ts timestamptz) USING stream;
INSERT INTO s VALUES (1, '2026-01-01'), (9, '2026-01-01');
INSERT INTO s SELECT i % 3, '2026-01-01' FROM generate_series(1, 1000) i;
BEGIN;
SET CONSTRAINTS ALL DEFERRED;
INSERT INTO s VALUES (9, '2026-01-01');
INSERT INTO d VALUES (9);
COMMIT;
DELETE FROM d WHERE id = 2;
DELETE FROM d WHERE id = 3;
UPDATE d SET id = 10 WHERE id = 9;
SELECT id, count(*) FROM s GROUP BY id ORDER BY id;
ALTER TABLE s DROP CONSTRAINT s_id_fkey;
INSERT INTO s VALUES (99, '2026-01-01');
ALTER TABLE s ADD FOREIGN KEY (id) REFERENCES d;
ALTER TABLE s ADD FOREIGN KEY (id) REFERENCES d NOT VALID;
DROP TABLE s, d;

-- row level security
CREATE ROLE regress_weir_row;
CREATE TABLE s (owner text, a int, ts timestamptz) USING stream WITH (event_time = ts);
ALTER TABLE s ENABLE ROW LEVEL SECURITY;
GRANT SELECT, INSERT ON s TO regress_weir_row;
CREATE POLICY own ON s USING (owner = current_user) WITH CHECK (a > 0);
INSERT INTO s VALUES ('somebody', 1, '2026-01-01');
SET ROLE regress_weir_row;
INSERT INTO s VALUES ('regress_weir_row', 1, '2026-01-01'), ('somebody', 2, '2026-01-01');
INSERT INTO s VALUES ('regress_weir_row', 0, '2026-01-01');
INSERT INTO s VALUES ('somebody', 2, '2026-01-01') RETURNING a;
SELECT owner, a FROM s;
SELECT owner, a FROM s WHERE ts < '2026-02-01';
COPY s (owner, a) TO stdout;
DELETE FROM s;
RESET ROLE;
SELECT count(*) FROM s;
DROP TABLE s;
DROP ROLE regress_weir_row;

-- inheritance, and partitions of every kind
CREATE TABLE s (a int, ts timestamptz) USING stream WITH (event_time = ts);
CREATE TABLE c (b int) INHERITS (s) USING stream WITH (event_time = ts);
INSERT INTO s VALUES (1, '2026-01-01');
INSERT INTO c VALUES (2, '2026-01-01', 2);
SELECT a FROM s ORDER BY a;
SELECT a FROM ONLY s;
SELECT a FROM s WHERE ts < '2026-02-01' ORDER BY a;
DROP TABLE s, c;
CREATE TABLE p (a int, ts timestamptz NOT NULL) PARTITION BY RANGE (ts);
CREATE TABLE p1 PARTITION OF p FOR VALUES FROM ('2026-01-01') TO ('2026-01-02')
  USING stream WITH (event_time = ts);
CREATE TABLE p2 (x text, ts timestamptz NOT NULL, a int) USING stream WITH (event_time = ts);
ALTER TABLE p2 DROP COLUMN x;
ALTER TABLE p ATTACH PARTITION p2 FOR VALUES FROM ('2026-01-02') TO ('2026-01-03');
CREATE TABLE p3 PARTITION OF p DEFAULT;
INSERT INTO p SELECT i, timestamptz '2026-01-01' + i * interval '1 hour'
  FROM generate_series(0, 59) i;
COPY p FROM stdin;
100	2026-01-01 01:00:00+00
101	2026-01-02 01:00:00+00
102	2026-01-03 01:00:00+00
\.
SELECT tableoid::regclass, count(*), sum(a) FROM p GROUP BY 1 ORDER BY 1;
SELECT count(*) FROM p WHERE ts >= '2026-01-01 12:00' AND ts < '2026-01-02 12:00';
ALTER TABLE p DETACH PARTITION p1;
SELECT weir.watermark('p1'), weir.watermark('p2');
DROP TABLE p, p1;

-- any type
CREATE TYPE comp AS (a int, b text);
CREATE TYPE en AS ENUM ('x', 'y');
CREATE DOMAIN dom AS int CHECK (value > 0);
CREATE TABLE s (a bool, b "char", c int2, d int4, e int8, f float4, g float8,
  h numeric, i text, j varchar(5), k char(5), l bytea, m date, n time, o timetz,
  p timestamp, q timestamptz, r interval, s uuid, t inet, u macaddr, v point,
  w box, x int[], y text[], z jsonb, aa json, bb comp, cc en, dd dom,
  ee int4range, ff name, gg macaddr8, hh oid, ii money, jj bit(3), kk varbit,
  ll tsvector, mm polygon, nn comp[], oo int4multirange, pp pg_lsn, qq xid8,
  rr jsonpath, ss regclass) USING stream;
CREATE TABLE h (LIKE s);
INSERT INTO h VALUES (true, 'x', -1, -2147483648, -9223372036854775808, '-0', 'NaN',
  1.00, 'abc', 'v', 'c', '\x0001', 'infinity', '24:00', '10:00+05', 'infinity',
  '-infinity', '1 month', 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11', '::1/64',
  '08:00:2b:01:02:03', '(1,2)', '(1,2),(3,4)', '{1,NULL,3}', '{a,"b c"}',
  '{"a": [1]}', '{"a" : 1}', '(1,x)', 'y', 5, '[1,5)', 'nm',
  '08:00:2b:01:02:03:04:05', 4294967295, 1.5, '101', '1', 'a b', '((0,0),(1,1))',
  '{"(1,a)"}', '{[1,2)}', '16/B374D848', '18446744073709551615', '$.a', 'pg_class');
INSERT INTO h (a) VALUES (NULL);
INSERT INTO h (a, c, d, e, f, h, i, l) VALUES (false, 32767, 2147483647,
  9223372036854775807, 'infinity', 'NaN', '', '');
INSERT INTO h (h, i, l) SELECT power(10::numeric, g), repeat('t', g), repeat('b', g)::bytea
  FROM generate_series(-20, 300) g;
INSERT INTO s SELECT * FROM h;
INSERT INTO s SELECT * FROM s;
SELECT count(*) FROM s;
SELECT count(*) FROM (SELECT r_::text FROM s r_ EXCEPT SELECT r_::text FROM h r_) d;
SELECT count(*) FROM (SELECT r_::text FROM h r_ EXCEPT SELECT r_::text FROM s r_) d;
SELECT d, e, f, g, h, hh, qq, k || '|' AS k, ff, v, ss FROM s WHERE a LIMIT 1;
DROP TABLE s, h;
DROP TYPE comp, en;
DROP DOMAIN dom;
CREATE TABLE s () USING stream;
INSERT INTO s DEFAULT VALUES;
INSERT INTO s SELECT FROM generate_series(1, 1000);
SELECT count(*) FROM s;
DROP TABLE s;

-- any size, compressed and not; from values that are stored out of line
CREATE TABLE src (i int, t text);
ALTER TABLE src ALTER t SET STORAGE EXTERNAL;
INSERT INTO src SELECT i, repeat(md5(i::text), (3 ^ i)::int) FROM generate_series(0, 11) i;
CREATE TABLE s (i int, t text, b bytea, ts timestamptz) USING stream WITH (event_time = ts);
CREATE TABLE z (LIKE s) USING stream WITH (event_time = ts);
INSERT INTO s SELECT i, t, t::bytea, '2026-01-01' FROM src;
INSERT INTO s SELECT i, left(t, -i), NULL, '2026-01-01' FROM src;
SET weir.compression = lz4;
INSERT INTO z SELECT i, t, t::bytea, '2026-01-01' FROM src;
SET weir.compression = off;
INSERT INTO z SELECT i, left(t, -i), NULL, '2026-01-01' FROM src;
CREATE TABLE o AS SELECT i, t, t::bytea AS b FROM src
  UNION ALL SELECT i, left(t, -i), NULL FROM src;
DROP TABLE src;
SELECT max(length(t)) FROM s;
SELECT i, t = o.t AND s.b IS NOT DISTINCT FROM o.b AS same
  FROM s JOIN o USING (i, t) WHERE s.b IS NOT DISTINCT FROM o.b ORDER BY i, s.b IS NULL;
SELECT count(*) FROM z JOIN o USING (i, t) WHERE z.b IS NOT DISTINCT FROM o.b;
SELECT pg_relation_size('z') * 3 < pg_relation_size('s') * 2 AS smaller;
VACUUM FULL s, z;
SELECT count(*) FROM s JOIN o USING (i, t) WHERE s.b IS NOT DISTINCT FROM o.b;
SELECT count(*) FROM z JOIN o USING (i, t) WHERE z.b IS NOT DISTINCT FROM o.b;
BEGIN;
INSERT INTO s SELECT * FROM z;
SAVEPOINT a;
SELECT count(*), sum(length(t)) FROM s;
ROLLBACK;
SELECT count(*), sum(length(t)) FROM s;
DROP TABLE s, z, o;
-- 1,600 columns: numbers, and texts that take more than a page
DO $$
BEGIN
  EXECUTE 'CREATE TABLE s (' || (SELECT string_agg(format('c%s int', i), ',')
    FROM generate_series(1, 1600) i) || ') USING stream';
  EXECUTE 'INSERT INTO s SELECT ' || (SELECT string_agg(format('g * %s', i), ',')
    FROM generate_series(1, 1600) i) || ' FROM generate_series(1, 600) g';
  EXECUTE 'CREATE TABLE t (' || (SELECT string_agg(format('c%s text', i), ',')
    FROM generate_series(1, 1600) i) || ') USING stream';
  EXECUTE 'INSERT INTO t SELECT ' || (SELECT string_agg(format('repeat(%L, g)', i), ',')
    FROM generate_series(1, 1600) i) || ' FROM generate_series(1, 30) g';
END $$;
INSERT INTO s (c7) VALUES (1);
SELECT count(*), count(c8), sum(c1), sum(c7), sum(c1600) FROM s;
SELECT count(*), sum(length(c1)), sum(length(c1600)) FROM t;
DROP TABLE s, t;
