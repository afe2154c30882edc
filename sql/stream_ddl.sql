--
-- CREATE, ALTER, DROP, TRUNCATE of streams: options and refusals
--
SET timezone = 'UTC';
SET datestyle = 'ISO';
CREATE FUNCTION options_of(rel regclass) RETURNS SETOF text LANGUAGE sql AS
$$ SELECT unnest(reloptions) FROM pg_class WHERE oid = rel ORDER BY 1 $$;

-- options are stored beside core's
CREATE TABLE s (a int, ts timestamptz, b text) USING stream
  WITH (event_time = ts, watermark_delay = '5 seconds', fillfactor = 90);
SELECT * FROM options_of('s');
\d+ s

-- names that the grammar takes for types, quoted names, no option at all
CREATE TABLE s1 (a int, "time" timestamptz) USING stream
  WITH (event_time = time);
CREATE TABLE s2 (a int, "Odd ""name" timestamp) USING stream
  WITH (event_time = "Odd ""name");
CREATE TABLE s3 (a int) USING stream;
SELECT * FROM options_of('s1');
SELECT * FROM options_of('s2');
SELECT * FROM options_of('s3');
DROP TABLE s1, s2, s3;

-- every option; words and units
CREATE TABLE s1 (a int, ts timestamptz) USING stream
  WITH (event_time = ts, watermark_delay = 0, idle_timeout = '1:30',
        max_future = infinity, retention = '7 days', retention_size = '10GB');
ALTER TABLE s1 SET (idle_timeout = off, max_future = off, retention = Infinity,
                    retention_size = 100000, watermark_delay = 'PT5S');
SELECT * FROM options_of('s1');
DROP TABLE s1;

-- values that are refused
CREATE TABLE x (ts timestamptz) USING stream WITH (event_time = nope);
CREATE TABLE x (a int) USING stream WITH (event_time = a);
CREATE TABLE x (a date) USING stream WITH (event_time = a);
CREATE TABLE x (a int) USING stream WITH (event_time = xmin);
CREATE TABLE x (ts timestamptz) USING stream WITH (event_time);
CREATE TABLE x (ts timestamptz) USING stream
  WITH (event_time = ts, event_time = ts);
CREATE TABLE x (ts timestamptz) USING stream WITH (event_tme = ts);
CREATE TABLE x (ts timestamptz) USING stream WITH (watermark_delay = '7');
CREATE TABLE x (ts timestamptz) USING stream WITH (watermark_delay = 7);
CREATE TABLE x (ts timestamptz) USING stream WITH (watermark_delay = '1 day 5');
CREATE TABLE x (ts timestamptz) USING stream WITH (watermark_delay = infinity);
CREATE TABLE x (ts timestamptz) USING stream WITH (watermark_delay = off);
CREATE TABLE x (ts timestamptz) USING stream WITH (watermark_delay = '-1 s');
CREATE TABLE x (ts timestamptz) USING stream WITH (retention = '1 month');
CREATE TABLE x (ts timestamptz) USING stream WITH (retention = 'soon');
\set VERBOSITY terse
CREATE TABLE x (ts timestamptz) USING stream WITH (retention_size = '1 foot');
\set VERBOSITY default
CREATE TABLE x (ts timestamptz) USING stream WITH (retention_size = -1);

-- things that are not streams
CREATE TEMP TABLE x (a int) USING stream;
CREATE MATERIALIZED VIEW x USING stream AS SELECT 1 AS a;
CREATE TABLE x (a int) USING continuous;
CREATE TABLE x (a int, PRIMARY KEY (a)) USING stream;
CREATE TABLE x (a int UNIQUE) USING stream;
CREATE TABLE x (a int, EXCLUDE USING btree (a WITH =)) USING stream;

-- other ways to create
CREATE TABLE s1 USING stream WITH (event_time = ts) AS
  SELECT i AS a, timestamptz '2026-01-01 00:00 UTC' + i * interval '1 min' AS ts
  FROM generate_series(1, 3) i;
SELECT count(*), min(ts AT TIME ZONE 'UTC') FROM s1;
CREATE TABLE IF NOT EXISTS s1 USING stream WITH (watermark_delay = '1 s') AS
  SELECT 1 AS a;
SELECT * FROM options_of('s1');
EXPLAIN ANALYZE CREATE TABLE s2 USING stream WITH (event_time = ts) AS SELECT * FROM s1 \g /dev/null
SELECT count(*) FROM s2;
SET default_table_access_method = stream;
SELECT a, ts INTO s3 FROM s1;
CREATE TABLE s4 (a int, ts timestamptz) WITH (event_time = ts);
CREATE TEMP TABLE x (a int);
RESET default_table_access_method;
SELECT * FROM options_of('s3');
SELECT * FROM options_of('s4');
CREATE TABLE s5 (LIKE s4 INCLUDING ALL) USING stream WITH (event_time = ts);
CREATE SCHEMA s_schema
  CREATE TABLE s6 (a int, ts timestamptz) USING stream WITH (event_time = ts);
SELECT * FROM options_of('s_schema.s6');
DO $$
BEGIN
  FOR i IN 1..2 LOOP
    EXECUTE 'DROP TABLE IF EXISTS s7';
    CREATE TABLE s7 (a int, ts timestamptz) USING stream WITH (event_time = ts);
  END LOOP;
END $$;
SELECT * FROM options_of('s7');
BEGIN;
SAVEPOINT a;
CREATE TABLE s8 (a int, ts timestamptz) USING stream WITH (event_time = nope);
ROLLBACK TO a;
CREATE TABLE s8 (a int, ts timestamptz) USING stream WITH (event_time = ts);
ROLLBACK TO a;
CREATE TABLE s8 (a int, ts timestamptz) USING stream;
COMMIT;
SELECT * FROM options_of('s8');
DROP SCHEMA s_schema CASCADE;
DROP TABLE s2, s3, s4, s5, s7, s8;

-- ALTER: merged with core's options, renames followed
ALTER TABLE s SET (watermark_delay = '7 s', fillfactor = 80);
ALTER TABLE s SET (autovacuum_enabled = off);
ALTER TABLE s SET (retention = '1 day'), RESET (fillfactor),
  SET (idle_timeout = '1 min'), RESET (idle_timeout);
ALTER TABLE s RENAME ts TO tm;
SELECT * FROM options_of('s');
ALTER TABLE s SET (fillfactor = 1);
ALTER TABLE s SET (nonsense = 1);
ALTER TABLE s SET (toast.retention = '1 day');
ALTER TABLE s SET (retention = '1');
ALTER TABLE s SET (event_time = b);
ALTER TABLE s RESET (retention, nonsense);
SELECT * FROM options_of('s');
ALTER TABLE IF EXISTS nope SET (event_time = x);
ALTER TABLE s DROP COLUMN tm;
ALTER TABLE s ALTER COLUMN tm TYPE timestamp;
BEGIN READ ONLY;
ALTER TABLE s SET (retention = '2 days');
ROLLBACK;

-- indexes
CREATE INDEX ON s (a);
CREATE INDEX CONCURRENTLY ON s (a);
ALTER TABLE s ADD PRIMARY KEY (a);
ALTER TABLE s ADD UNIQUE (a);
ALTER TABLE s ADD EXCLUDE USING btree (a WITH =);
ALTER TABLE s ADD COLUMN c int UNIQUE;

-- rewrites: an empty stream may be rewritten, another one not
ALTER TABLE s ALTER COLUMN b TYPE int USING 1;
ALTER TABLE s ALTER COLUMN b TYPE text;
INSERT INTO s VALUES (1, '2026-01-01 00:00 UTC', 'x');
ALTER TABLE s ALTER COLUMN b TYPE int USING 1;
ALTER TABLE s ADD COLUMN c float DEFAULT random();
ALTER TABLE s SET UNLOGGED;
ALTER TABLE s RESET (event_time);
ALTER TABLE s ADD COLUMN c int DEFAULT 7, ADD COLUMN ts2 timestamptz;
ALTER TABLE s SET (event_time = ts2);
ALTER TABLE s DROP COLUMN a;
SELECT b, c, ts2 FROM s;
-- core forgets missing values after VACUUM FULL: they must be in the chunks
INSERT INTO s VALUES ('2026-01-01', repeat('long', 10000)), ('2026-01-01', 'y');
ALTER TABLE s ADD COLUMN d text DEFAULT repeat('d', 100);
VACUUM FULL s;
SELECT left(b, 5) AS b, length(b), c, ts2, length(d) AS d FROM s ORDER BY 2, 1;
SET weir.compression = lz4;
INSERT INTO s (tm, b) SELECT '2026-01-01', repeat('z', 99) FROM generate_series(1, 300);
ALTER TABLE s ADD COLUMN e text DEFAULT repeat('e', 1000);
VACUUM FULL s;
RESET weir.compression;
SELECT c, count(*), sum(length(d)) AS d, sum(length(e)) AS e FROM s GROUP BY c ORDER BY c;
SELECT weir.watermark('s');
BEGIN;
INSERT INTO s (tm) VALUES ('2026-01-01 00:01 UTC');
ALTER TABLE s SET UNLOGGED;
ROLLBACK;
TRUNCATE s;
-- rows that an outer subtransaction has yet to write count, too
BEGIN;
INSERT INTO s (tm) VALUES ('2026-01-01 00:01 UTC');
SAVEPOINT a;
ALTER TABLE s ALTER COLUMN c TYPE text;
ROLLBACK TO a;
ALTER TABLE s SET (event_time = ts2);
ROLLBACK TO a;
ALTER TABLE s ADD COLUMN f int DEFAULT 9;
INSERT INTO s (tm, f) VALUES ('2026-01-01 00:01 UTC', 10);
SELECT c, f FROM s ORDER BY f;
ROLLBACK TO a;
TRUNCATE s;
ALTER TABLE s ALTER COLUMN c TYPE text;
INSERT INTO s (tm, c) VALUES ('2026-01-01 00:01 UTC', 'text');
SELECT c FROM s;
ROLLBACK TO a;
SELECT c FROM s;
ROLLBACK;
ALTER TABLE s SET UNLOGGED;
ALTER TABLE s SET LOGGED;
ALTER TABLE s SET (event_time = ts2);
ALTER TABLE s RESET (event_time);
SELECT * FROM options_of('s');
ALTER TABLE s SET (event_time = tm);
DROP TABLE s;

-- SET ACCESS METHOD: rows and options move
CREATE TABLE h (a int, ts timestamptz) WITH (fillfactor = 60);
INSERT INTO h SELECT i, timestamptz '2026-01-01 00:00 UTC' + i * interval '1 s'
  FROM generate_series(1, 100) i;
CREATE INDEX h_idx ON h (a);
ALTER TABLE h SET ACCESS METHOD stream, SET (event_time = ts);
DROP INDEX h_idx;
ALTER TABLE h SET ACCESS METHOD stream, SET (event_time = nope);
ALTER TABLE h SET ACCESS METHOD stream, SET (event_time = ts, fillfactor = 70);
SELECT * FROM options_of('h');
SELECT count(*), sum(a), min(ts AT TIME ZONE 'UTC') FROM h;
SELECT weir.watermark('h');
ALTER TABLE h SET ACCESS METHOD continuous;
ALTER TABLE h SET ACCESS METHOD heap;
SELECT * FROM options_of('h');
SELECT count(*), sum(a) FROM h;
ALTER TABLE h SET (fillfactor = 80);
UPDATE h SET a = a + 1 WHERE a = 1;
INSERT INTO h VALUES (0, NULL);
ALTER TABLE h SET ACCESS METHOD stream, SET (event_time = ts);
UPDATE h SET ts = '9999-12-31 UTC' WHERE a = 0;
ALTER TABLE h SET ACCESS METHOD stream, SET (event_time = ts);
ALTER TABLE h SET ACCESS METHOD stream,
  SET (event_time = ts, max_future = infinity);
SELECT weir.watermark('h');
-- the watermark of an earlier life as a stream does not count
ALTER TABLE h SET ACCESS METHOD heap;
DELETE FROM h WHERE a = 0;
ALTER TABLE h SET ACCESS METHOD stream, SET (event_time = ts);
SELECT weir.watermark('h');
CREATE TEMP TABLE th (a int);
ALTER TABLE th SET ACCESS METHOD stream;
DROP TABLE h, th;

-- in a transaction with rows of several subtransactions
CREATE TABLE h (a int, ts timestamptz) USING stream WITH (event_time = ts);
BEGIN;
INSERT INTO h VALUES (1, '2026-01-01');
SAVEPOINT a;
INSERT INTO h VALUES (2, '2026-01-01');
SAVEPOINT b;
INSERT INTO h VALUES (3, '2026-01-01');
ALTER TABLE h SET ACCESS METHOD heap;
SELECT a FROM h ORDER BY a;
ROLLBACK TO b;
SELECT a FROM h ORDER BY a;
ALTER TABLE h SET ACCESS METHOD heap;
COMMIT;
SELECT a FROM h ORDER BY a;
ALTER TABLE h SET ACCESS METHOD stream, SET (event_time = ts);
SELECT a FROM h ORDER BY a;
SELECT weir.watermark('h');
DROP TABLE h;
-- values that need a TOAST table, which a stream has not
CREATE TABLE h (a int, t text) USING stream;
INSERT INTO h SELECT i, string_agg(md5(j::text), '' ORDER BY j) FROM generate_series(1, 3) i,
  generate_series(1, 10000) j GROUP BY i;
ALTER TABLE h SET ACCESS METHOD heap;
SELECT a, length(t), md5(t) FROM h ORDER BY a;
INSERT INTO h SELECT a + 3, t FROM h;
VACUUM h;
ALTER TABLE h SET ACCESS METHOD stream;
SELECT a, length(t), md5(t) FROM h ORDER BY a;
SELECT reltoastrelid FROM pg_class WHERE relname = 'h';
DROP TABLE h;

-- partitions: the option of each follows the parent's columns
CREATE TABLE p (a int, ts timestamptz, b int) PARTITION BY RANGE (a);
CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (0) TO (10) USING stream
  WITH (event_time = ts);
CREATE TABLE p2 (a int, ts timestamptz, b int) USING stream
  WITH (event_time = ts);
ALTER TABLE p ATTACH PARTITION p2 FOR VALUES FROM (10) TO (20);
ALTER TABLE p RENAME ts TO tm;
SELECT * FROM options_of('p1');
SELECT * FROM options_of('p2');
ALTER TABLE p ALTER COLUMN tm TYPE timestamp;
ALTER TABLE p DROP COLUMN tm;
CREATE INDEX ON p (a);
INSERT INTO p VALUES (1, '2026-01-01 UTC', 1), (11, '2026-01-01 UTC', 1);
ALTER TABLE p ALTER COLUMN b TYPE text;
ALTER TABLE p DROP COLUMN b;
SELECT a FROM p ORDER BY a;
DROP TABLE p;

-- publications
SET client_min_messages = error;	-- about wal_level
CREATE PUBLICATION pub FOR TABLE s1;
CREATE TABLE h (a int);
CREATE PUBLICATION pub FOR TABLE h;
ALTER PUBLICATION pub ADD TABLE s1;
ALTER PUBLICATION pub SET TABLE s1;
ALTER TABLE h SET ACCESS METHOD stream;
DROP PUBLICATION pub;
RESET client_min_messages;
DROP TABLE h;

-- an event time that is set when a view has groups by date_trunc() of that column: rows stay those of the query
SET client_min_messages = error;
CREATE TABLE later (a int, ts timestamptz) USING stream;
CREATE MATERIALIZED VIEW later_v USING continuous AS SELECT date_trunc('hour', ts) AS h, count(*) AS n FROM later GROUP BY 1;
INSERT INTO later VALUES (1, '2026-01-01 05:10Z');
SELECT weir.wait_for('later_v');
ALTER TABLE later SET (event_time = ts, watermark_delay = '0');
INSERT INTO later VALUES (2, '2026-01-01 05:20Z');
INSERT INTO later VALUES (3, '2026-01-01 08:00Z');
SELECT weir.wait_for('later_v');
SELECT weir.checkpoint();
SELECT * FROM later_v ORDER BY h;
RESET client_min_messages;
DROP TABLE later CASCADE;

-- TRUNCATE
INSERT INTO s1 VALUES (10, '2026-01-01 01:00 UTC');
BEGIN;
TRUNCATE s1;
INSERT INTO s1 VALUES (11, '2026-01-01 01:01 UTC');
SELECT a FROM s1;
ROLLBACK;
SELECT count(*) FROM s1;
TRUNCATE s1;
SELECT count(*), weir.watermark('s1') FROM s1;
DROP TABLE s1;

-- rights
CREATE ROLE regress_weir_other;
CREATE TABLE s (a int, ts timestamptz) USING stream WITH (event_time = ts);
SET ROLE regress_weir_other;
ALTER TABLE s SET (retention = '1 day');
ALTER TABLE s RENAME ts TO tm;
TRUNCATE s;
SELECT * FROM weir.view_wish;
RESET ROLE;
DROP TABLE s;
DROP ROLE regress_weir_other;
DROP FUNCTION options_of;
