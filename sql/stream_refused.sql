--
-- What a stream refuses: SQLSTATE, message, hint
--
SET timezone = 'UTC';
CREATE FUNCTION refused(statement text, OUT state text, OUT message text,
  OUT hint text) LANGUAGE plpgsql AS
$$
BEGIN
  EXECUTE statement;
  message := 'accepted';
EXCEPTION WHEN OTHERS THEN
  GET STACKED DIAGNOSTICS state = RETURNED_SQLSTATE,
    message = MESSAGE_TEXT, hint = PG_EXCEPTION_HINT;
END
$$;
CREATE TABLE s (a int, ts timestamptz) USING stream WITH (event_time = ts);
CREATE TABLE h (a int PRIMARY KEY, ts timestamptz);
INSERT INTO s VALUES (1, '2026-01-01');
INSERT INTO h VALUES (1, '2026-01-01');

-- statements that change rows, whether there are rows or not
\x
SELECT * FROM refused('UPDATE s SET a = 2');
SELECT * FROM refused('UPDATE s SET a = 2 WHERE false');
SELECT * FROM refused('EXPLAIN UPDATE s SET a = 2');
SELECT * FROM refused('UPDATE s SET a = h.a FROM h WHERE h.a = s.a');
SELECT * FROM refused('DELETE FROM s');
SELECT * FROM refused('DELETE FROM s USING h WHERE h.a = s.a');
SELECT * FROM refused('WITH d AS (DELETE FROM s RETURNING *) SELECT * FROM d');
SELECT * FROM refused('MERGE INTO s USING h ON h.a = s.a
  WHEN NOT MATCHED THEN INSERT VALUES (h.a, h.ts)');
SELECT * FROM refused('MERGE INTO s USING h ON h.a = s.a
  WHEN MATCHED THEN DO NOTHING');

-- ON CONFLICT in every form, at plan time: there is no index to infer
SELECT * FROM refused('INSERT INTO s VALUES (1, now()) ON CONFLICT DO NOTHING');
SELECT * FROM refused('INSERT INTO s VALUES (1, now()) ON CONFLICT (a) DO NOTHING');
SELECT * FROM refused('INSERT INTO s VALUES (1, now())
  ON CONFLICT (a) DO UPDATE SET a = excluded.a');
SELECT * FROM refused('WITH i AS (INSERT INTO s VALUES (1, now())
  ON CONFLICT (a) DO NOTHING RETURNING a) SELECT * FROM i');
SELECT * FROM refused('PREPARE p AS INSERT INTO s VALUES (1, now())
  ON CONFLICT DO NOTHING; EXECUTE p');

-- locks that ask to change a row
SELECT * FROM refused('SELECT * FROM s FOR UPDATE');
SELECT * FROM refused('SELECT * FROM s FOR NO KEY UPDATE');
SELECT * FROM refused('SELECT * FROM s JOIN h USING (a) FOR UPDATE OF s');
SELECT * FROM refused('SELECT * FROM s JOIN h USING (a) FOR UPDATE OF h');
SELECT * FROM refused('SELECT * FROM s FOR SHARE');
SELECT * FROM refused('SELECT * FROM s FOR KEY SHARE');

-- samples
SELECT * FROM refused('SELECT * FROM s TABLESAMPLE system (50)');
SELECT * FROM refused('SELECT * FROM s TABLESAMPLE bernoulli (50)');

-- indexes; CONCURRENTLY must not leave an invalid one (see below)
SELECT * FROM refused('CREATE INDEX ON s (a)');
SELECT * FROM refused('CREATE UNIQUE INDEX ON s (a)');
SELECT * FROM refused('ALTER TABLE s ADD PRIMARY KEY (a)');

-- temporary ones
SELECT * FROM refused('CREATE TEMP TABLE t (a int) USING stream');
SELECT * FROM refused('CREATE TEMP TABLE t USING stream AS SELECT 1 AS a');

-- rewrites, and what would change the times in the log
SELECT * FROM refused('ALTER TABLE s ALTER a TYPE bigint');
SELECT * FROM refused('ALTER TABLE s ADD COLUMN b float DEFAULT random()');
SELECT * FROM refused('ALTER TABLE s ADD COLUMN b int GENERATED ALWAYS AS IDENTITY');
SELECT * FROM refused('ALTER TABLE s SET UNLOGGED');
SELECT * FROM refused('ALTER TABLE s RESET (event_time)');
SELECT * FROM refused('ALTER TABLE s DROP COLUMN ts');
SELECT * FROM refused('ALTER TABLE s ALTER ts TYPE timestamp');

-- event times
SELECT * FROM refused('INSERT INTO s VALUES (2, NULL)');
SELECT * FROM refused('INSERT INTO s VALUES (2, ''infinity'')');
SELECT * FROM refused('INSERT INTO s VALUES (2, ''-infinity'')');
SELECT * FROM refused('INSERT INTO s VALUES (2, ''9999-12-31'')');
SELECT * FROM refused('COPY s FROM PROGRAM ''echo "2,9999-12-31"'' (FORMAT csv)');

-- foreign keys to it, and actions from it that would change it
SELECT * FROM refused('CREATE TABLE x (a int REFERENCES s (a))');
CREATE TABLE f (a int REFERENCES h ON DELETE CASCADE) USING stream;
INSERT INTO f VALUES (1);
SELECT * FROM refused('DELETE FROM h');

-- publications
SELECT * FROM refused('CREATE PUBLICATION p FOR TABLE h, s');
SELECT * FROM refused('CREATE PUBLICATION p FOR TABLE ONLY s (a) WHERE (a > 1)');
\x
CREATE INDEX CONCURRENTLY s_idx ON s (a);
SELECT count(*) FROM pg_index WHERE indrelid = 's'::regclass;
SELECT a FROM s;

-- max_future: the option, its end, and types that have no time zone
ALTER TABLE s SET (max_future = '1 hour');
INSERT INTO s VALUES (3, now() + interval '59 min');
SELECT state FROM refused('INSERT INTO s VALUES (4, now() + interval ''61 min'')');
SELECT refused_future FROM weir.streams WHERE stream = 's'::regclass;
ALTER TABLE s SET (max_future = infinity);
INSERT INTO s VALUES (5, '9999-12-31');
INSERT INTO s VALUES (6, 'infinity');
SELECT a FROM s ORDER BY a;
CREATE TABLE t (a int, ts timestamp) USING stream WITH (event_time = ts);
INSERT INTO t VALUES (1, '9999-12-31'), (2, '0044-03-15 BC');
INSERT INTO t VALUES (3, NULL);
INSERT INTO t VALUES (4, '-infinity');
SELECT a FROM t ORDER BY a;

-- partitions: the parent says no where one of them is a stream
CREATE TABLE p (a int, ts timestamptz) PARTITION BY RANGE (a);
CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (0) TO (10) USING stream
  WITH (event_time = ts);
CREATE TABLE p2 PARTITION OF p FOR VALUES FROM (10) TO (20);
INSERT INTO p SELECT i, '2026-01-01' FROM generate_series(0, 19) i;
UPDATE p SET ts = '2026-01-02';
UPDATE p SET ts = '2026-01-02' WHERE a >= 10;
DELETE FROM p;
DELETE FROM p WHERE a >= 15;
INSERT INTO p VALUES (1, '2026-01-01') ON CONFLICT DO NOTHING;
INSERT INTO p2 VALUES (11, '2026-01-01') ON CONFLICT DO NOTHING;
SELECT * FROM p FOR UPDATE;
MERGE INTO p USING h ON h.a = p.a WHEN MATCHED THEN DELETE;
-- a row may move into a stream, not out of it
UPDATE p SET a = 5 WHERE a = 11;
UPDATE p SET a = 12 WHERE a = 5;
SELECT tableoid::regclass, count(*), sum(a) FROM p GROUP BY 1 ORDER BY 1;
ALTER TABLE p ADD PRIMARY KEY (a);
CREATE INDEX ON p (a);
CREATE TABLE q (a int PRIMARY KEY, ts timestamptz) PARTITION BY RANGE (a);
CREATE TABLE q1 PARTITION OF q FOR VALUES FROM (0) TO (10) USING stream;

DROP TABLE s, h, f, t, p, q CASCADE;
DROP FUNCTION refused;
