-- REFRESH: rebuilds from what the stream holds; never loses what it does not
CREATE TABLE s (k int, x int, ts timestamptz)
  USING stream WITH (event_time = ts, watermark_delay = '5 seconds');
CREATE MATERIALIZED VIEW w USING continuous AS
  SELECT window_start, k, count(*) AS n, sum(x) AS total
  FROM s, tumble(ts, '10 seconds') GROUP BY window_start, k;
CREATE MATERIALIZED VIEW a USING continuous AS
  SELECT k, count(*) AS n FROM s GROUP BY k;
INSERT INTO s SELECT i % 3, i, timestamptz '2026-01-01 00:00Z' + i * interval '1 s'
  FROM generate_series(0, 59) i;
SELECT weir.wait_for('w'), weir.wait_for('a');
SELECT count(*), sum(n), sum(total) FROM w;

-- late rows are counted, not added; they come in with more lateness and REFRESH
INSERT INTO s VALUES (1, 1000, '2026-01-01 00:00:05Z');
SELECT weir.wait_for('w');
SELECT events_in, late FROM weir.views WHERE view = 'w'::regclass;
SELECT sum(total) FROM w;
ALTER MATERIALIZED VIEW w SET (allowed_lateness = '1 hour');
REFRESH MATERIALIZED VIEW w;
SELECT weir.wait_for('w');
SELECT events_in, late FROM weir.views WHERE view = 'w'::regclass;
SELECT sum(total) FROM w;
SELECT count(*) FROM (TABLE w EXCEPT ALL
  (SELECT window_start, k, count(*), sum(x) FROM s, tumble(ts, '10 seconds')
   GROUP BY window_start, k)) d;

-- twice at once, and with an index
CREATE INDEX ON w (window_start);
REFRESH MATERIALIZED VIEW w;
REFRESH MATERIALIZED VIEW w;
REFRESH MATERIALIZED VIEW a;
SELECT weir.wait_for('w'), weir.wait_for('a');
SELECT count(*), sum(n), sum(total) FROM w;
SELECT * FROM a ORDER BY k;
ALTER MATERIALIZED VIEW w SET (allowed_lateness = '0');
SELECT weir.checkpoint();
SELECT final_rows, groups FROM weir.views WHERE view = 'w'::regclass;
SELECT count(*), sum(n), sum(total) FROM w;

-- in a transaction that is rolled back: nothing happens
BEGIN;
REFRESH MATERIALIZED VIEW a;
ROLLBACK;
SELECT weir.wait_for('a');
SELECT generation FROM weir.view_wish WHERE view = 'a'::regclass;

-- what the stream has lost cannot be rebuilt, and is not thrown away
TRUNCATE s;
SELECT count(*) FROM s;
REFRESH MATERIALIZED VIEW a;
\set VERBOSITY sqlstate
REFRESH MATERIALIZED VIEW w;
\set VERBOSITY default
SELECT count(*), sum(n), sum(total) FROM w;
INSERT INTO s VALUES (1, 1, '2026-01-01 01:00Z');
SELECT weir.wait_for('a');
SELECT * FROM a ORDER BY k;

-- unless asked to begin anew
REFRESH MATERIALIZED VIEW a WITH NO DATA;
SELECT * FROM a;
SELECT weir.wait_for('a');
REFRESH MATERIALIZED VIEW a;
SELECT weir.wait_for('a');
SELECT * FROM a ORDER BY k;
REFRESH MATERIALIZED VIEW a;
SELECT weir.wait_for('a');
SELECT * FROM a ORDER BY k;

-- a view made after the loss knows nothing of it
CREATE MATERIALIZED VIEW b USING continuous AS SELECT count(*) AS n FROM s;
SELECT weir.wait_for('b');
REFRESH MATERIALIZED VIEW b;
SELECT weir.wait_for('b');
TABLE b;

-- WITH NO DATA: there, but not started
CREATE MATERIALIZED VIEW off USING continuous AS SELECT count(*) AS n FROM s WITH NO DATA;
SELECT * FROM off;
SELECT ispopulated FROM pg_matviews WHERE matviewname = 'off';
\set VERBOSITY terse
SELECT weir.pause('off');
SELECT weir.resume('off');
\set VERBOSITY default
SELECT state, worker_pid, groups FROM weir.views WHERE view = 'off'::regclass;
REFRESH MATERIALIZED VIEW off WITH NO DATA;
REFRESH MATERIALIZED VIEW off;
SELECT weir.wait_for('off');
TABLE off;
REFRESH MATERIALIZED VIEW off WITH NO DATA;
SELECT state, worker_pid, groups FROM weir.views WHERE view = 'off'::regclass;
INSERT INTO s VALUES (1, 1, '2026-01-01 01:00Z');
REFRESH MATERIALIZED VIEW off;
SELECT weir.wait_for('off');
SELECT off.n = (SELECT count(*) FROM s) AS all FROM off;
-- a paused view is started by it
SELECT weir.pause('off');
REFRESH MATERIALIZED VIEW off;
SELECT weir.wait_for('off');
SELECT state FROM weir.views WHERE view = 'off'::regclass;
-- one transaction for two views and an event
SELECT weir.wait_for('b');
BEGIN;
REFRESH MATERIALIZED VIEW off;
INSERT INTO s VALUES (1, 1, '2026-01-01 01:00Z');
REFRESH MATERIALIZED VIEW b;
TABLE b;
COMMIT;
SELECT weir.wait_for('off'), weir.wait_for('b');
SELECT off.n = (SELECT count(*) FROM s) AS off, b.n = off.n AS b FROM off, b;
-- its own reader, somebody else
BEGIN;
DECLARE c CURSOR FOR SELECT * FROM off;
REFRESH MATERIALIZED VIEW off;
ROLLBACK;
CREATE ROLE regress_weir_refresh;
SET ROLE regress_weir_refresh;
\set VERBOSITY sqlstate
REFRESH MATERIALIZED VIEW off;
\set VERBOSITY default
RESET ROLE;
DROP ROLE regress_weir_refresh;

-- retention loses events, too
ALTER TABLE s SET (retention_size = '1');
SELECT weir.checkpoint();
ALTER TABLE s RESET (retention_size);
\set VERBOSITY sqlstate
REFRESH MATERIALIZED VIEW b;
\set VERBOSITY default
REFRESH MATERIALIZED VIEW CONCURRENTLY b;

-- a rebuild that stands still needs the events, whatever the old rows have
CREATE TABLE held (k int) USING stream;
CREATE MATERIALIZED VIEW h USING continuous AS SELECT count(*) AS n FROM held;
INSERT INTO held SELECT generate_series(1, 10);
SELECT weir.wait_for('h');
SELECT weir.checkpoint();
BEGIN;
REFRESH MATERIALIZED VIEW h;
SELECT weir.pause('h');
COMMIT;
TRUNCATE held;
SELECT weir.resume('h');
SELECT weir.wait_for('h');
TABLE h;
TRUNCATE held;
TABLE h;
DROP TABLE held CASCADE;

DROP TABLE s CASCADE;
SELECT count(*) FROM weir.stream_trim;
