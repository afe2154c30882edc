--
-- Streams that views read: TRUNCATE, ALTER, DROP
--
CREATE TABLE s1 (a int, ts timestamptz) USING stream WITH (event_time = ts);
INSERT INTO s1 SELECT i, timestamptz '2026-01-01 00:00 UTC' + i * interval '1 min'
  FROM generate_series(1, 3) i;

-- TRUNCATE waits for no view, but loses none of its events
CREATE MATERIALIZED VIEW v1 USING continuous AS
  SELECT count(*) AS n, sum(a) AS a FROM s1;
SELECT weir.wait_for('v1');
TRUNCATE s1;
SELECT * FROM v1;
SELECT weir.pause('v1');
INSERT INTO s1 VALUES (10, '2026-01-01 01:00 UTC');
TRUNCATE s1;
BEGIN;
TRUNCATE s1;
ROLLBACK;
SELECT count(*) FROM s1;
SELECT weir.resume('v1');
SELECT weir.wait_for('v1');
TRUNCATE s1;
SELECT * FROM v1;
SELECT count(*) FROM s1;

-- what TRUNCATE raises
\set VERBOSITY sqlstate
SELECT weir.pause('v1');
INSERT INTO s1 VALUES (11, '2026-01-01 01:01 UTC');
TRUNCATE s1;
\set VERBOSITY default
SELECT weir.resume('v1');
SELECT weir.wait_for('v1');
TRUNCATE s1;
SELECT * FROM v1;

-- the event time of a stream with a windowed view stays; its name may change
CREATE MATERIALIZED VIEW v2 USING continuous AS
  SELECT window_start, count(*) AS n FROM s1, tumble(ts, '1 minute') GROUP BY window_start;
ALTER TABLE s1 ADD COLUMN ts2 timestamptz;
ALTER TABLE s1 SET (event_time = ts2);
ALTER TABLE s1 RESET (event_time);
ALTER TABLE s1 RENAME ts TO tm;
ALTER TABLE s1 SET (watermark_delay = '1 s', event_time = tm);
ALTER TABLE s1 DROP COLUMN a;
ALTER TABLE s1 DROP COLUMN ts2;
INSERT INTO s1 VALUES (1, '2026-01-01 02:00:30 UTC'), (2, '2026-01-01 02:01:30 UTC');
SELECT weir.wait_for('v2');
SELECT window_start AT TIME ZONE 'UTC' AS start, n FROM v2 ORDER BY 1;
DROP MATERIALIZED VIEW v2;

-- a column that comes, with a default, while the view runs
ALTER TABLE s1 ADD COLUMN c int DEFAULT 100;
CREATE MATERIALIZED VIEW v2 USING continuous AS SELECT sum(c) AS c FROM s1;
VACUUM FULL s1;
INSERT INTO s1 VALUES (3, '2026-01-01 02:02 UTC', 7);
SELECT weir.wait_for();
SELECT * FROM v1;
SELECT * FROM v2;
DROP MATERIALIZED VIEW v2;

-- a DROP that is rolled back leaves the stream's counters, and the view goes on
SELECT rows_in AS before FROM weir.streams WHERE stream = 's1'::regclass \gset
BEGIN;
SAVEPOINT a;
DROP TABLE s1 CASCADE;
ROLLBACK TO a;
INSERT INTO s1 VALUES (4, '2026-01-01 02:03 UTC');
COMMIT;
SELECT rows_in - :before AS rows_in FROM weir.streams WHERE stream = 's1'::regclass;
INSERT INTO s1 VALUES (5, '2026-01-01 02:04 UTC');
SELECT weir.wait_for('v1');
SELECT * FROM v1;

-- a stream that views read
ALTER TABLE s1 SET ACCESS METHOD heap;
CREATE TABLE child () INHERITS (s1);
CREATE TABLE child (LIKE s1);
ALTER TABLE child INHERIT s1;
DROP TABLE s1;
DROP TABLE s1 CASCADE;
DROP TABLE child;
SELECT count(*) FROM weir.view_wish;
SELECT count(*) FROM weir.view_position;
SELECT count(*) FROM weir.view_state;
