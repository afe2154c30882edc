-- Events that make a view's query fail.
SET timezone = 'UTC';
SET datestyle = 'ISO';
\set SHOW_CONTEXT never
CREATE TABLE er (k int, v int, note text, ts timestamptz)
  USING stream WITH (event_time = ts, watermark_delay = '0');
INSERT INTO er VALUES (1, 1, 'a', '2026-01-01 00:00:01Z'), (2, 2, 'b', '2026-01-01 00:00:02Z');

-- on_error = stop: this view alone fails, where it stands
CREATE MATERIALIZED VIEW er_stop USING continuous AS
  SELECT k, sum(100 / v) AS s, count(*) AS n FROM er GROUP BY k;
CREATE MATERIALIZED VIEW er_skip USING continuous WITH (on_error = skip) AS
  SELECT k, sum(100 / v) AS s, count(*) AS n FROM er GROUP BY k;
CREATE MATERIALIZED VIEW er_fine USING continuous AS
  SELECT k, count(*) AS n FROM er GROUP BY k;
CREATE MATERIALIZED VIEW er_window USING continuous WITH (on_error = skip) AS
  SELECT window_start, sum(100 / v) AS s FROM er, tumble(ts, '1 minute') GROUP BY window_start;
SELECT weir.wait_for();
-- good, bad, good in one transaction, among others
INSERT INTO er VALUES (1, 10, 'good', '2026-01-01 00:00:03Z');
INSERT INTO er VALUES (1, 20, 'good', '2026-01-01 00:00:04Z'), (1, 0, E'it''s "bad"\n', '2026-01-01 00:00:05Z'),
  (2, 25, NULL, '2026-01-01 00:00:06Z');
INSERT INTO er VALUES (2, 50, 'after', '2026-01-01 00:00:07Z');
SELECT weir.wait_for('er_fine');
SELECT weir.wait_for('er_skip');
SELECT weir.wait_for('er_window');
\set VERBOSITY terse
SELECT weir.wait_for('er_stop');
\set VERBOSITY default
-- the whole transaction of the bad event is missing
SELECT * FROM er_stop ORDER BY k;
SELECT * FROM er_fine ORDER BY k;
SELECT * FROM er_skip ORDER BY k;
SELECT * FROM er_window;
SELECT view, state, error FROM weir.views ORDER BY view::text;
-- skipped events are written with the checkpoint that has passed them
SELECT weir.checkpoint();
SELECT view, stream, event, sqlstate, message, at <= now() AS at FROM weir.errors ORDER BY view::text;

-- resume without a repair fails again, at the same place, and loses nothing
SELECT weir.resume('er_stop');
\set VERBOSITY terse
SELECT weir.wait_for('er_stop');
\set VERBOSITY default
SELECT * FROM er_stop ORDER BY k;
SELECT count(*) FROM weir.errors WHERE view = 'er_stop'::regclass;
-- neither a checkpoint nor a pause makes it worse
SELECT weir.checkpoint();
SELECT weir.pause('er_stop');
SELECT state FROM weir.views WHERE view = 'er_stop'::regclass;
SELECT weir.resume('er_stop');
\set VERBOSITY terse
SELECT weir.wait_for('er_stop');
\set VERBOSITY default
-- to leave the event out, change the option and go on
ALTER MATERIALIZED VIEW er_stop SET (on_error = skip);
SELECT weir.resume('er_stop');
SELECT weir.wait_for('er_stop');
SELECT state, error FROM weir.views WHERE view = 'er_stop'::regclass;
SELECT * FROM er_stop EXCEPT ALL SELECT * FROM er_skip;
SELECT * FROM er_skip EXCEPT ALL SELECT * FROM er_stop;
-- the oracle: the query without the bad events
SELECT * FROM er_skip EXCEPT ALL SELECT k, sum(100 / v), count(*) FROM (SELECT * FROM er WHERE v <> 0 OFFSET 0) e GROUP BY k;

-- skip: several in one transaction, in several, first and last, all of one
INSERT INTO er SELECT i % 3, CASE WHEN i % 7 IN (0, 1) THEN 0 ELSE i END, i::text, '2026-01-01 00:01:00Z'
  FROM generate_series(0, 70) i;
INSERT INTO er VALUES (0, 0, 'x', '2026-01-01 00:01:00Z');
INSERT INTO er VALUES (0, 0, 'y', '2026-01-01 00:01:00Z'), (1, 0, 'y', '2026-01-01 00:01:00Z');
BEGIN;
INSERT INTO er VALUES (5, 5, 'z', '2026-01-01 00:01:00Z');
SAVEPOINT a;
INSERT INTO er VALUES (5, 0, 'rolled back', '2026-01-01 00:01:00Z');
ROLLBACK TO a;
INSERT INTO er VALUES (5, 0, 'z', '2026-01-01 00:01:00Z');
COMMIT;
INSERT INTO er SELECT 6, 6, 'many', '2026-01-01 00:01:00Z' FROM generate_series(1, 20000);
INSERT INTO er VALUES (6, 0, 'one of many', '2026-01-01 00:01:00Z');
SELECT weir.wait_for();
SELECT count(*) FROM (
  (SELECT * FROM er_skip EXCEPT ALL SELECT k, sum(100 / v), count(*) FROM (SELECT * FROM er WHERE v <> 0 OFFSET 0) e GROUP BY k)
  UNION ALL
  (SELECT k, sum(100 / v), count(*) FROM (SELECT * FROM er WHERE v <> 0 OFFSET 0) e GROUP BY k EXCEPT ALL SELECT * FROM er_skip)) d;
SELECT count(*) FROM (
  (SELECT * FROM er_window EXCEPT ALL SELECT window_start, sum(100 / v) FROM (SELECT * FROM er WHERE v <> 0 OFFSET 0) e, tumble(ts, '1 minute') GROUP BY window_start)
  UNION ALL
  (SELECT window_start, sum(100 / v) FROM (SELECT * FROM er WHERE v <> 0 OFFSET 0) e, tumble(ts, '1 minute') GROUP BY window_start EXCEPT ALL SELECT * FROM er_window)) d;
SELECT weir.checkpoint();
-- each once for each view
SELECT view, count(*), count(DISTINCT event->>'note') FROM weir.errors WHERE event->>'note' <> E'it''s "bad"\n'
  GROUP BY view ORDER BY view::text;
SELECT count(*) FROM er WHERE v = 0;

-- a view created later meets them all at once
CREATE MATERIALIZED VIEW er_late USING continuous WITH (on_error = skip) AS
  SELECT k, sum(100 / v) AS s, count(*) AS n FROM er GROUP BY k;
SELECT weir.wait_for('er_late');
SELECT * FROM er_late EXCEPT ALL SELECT * FROM er_skip;
SELECT weir.checkpoint();
SELECT count(*) FROM weir.errors WHERE view = 'er_late'::regclass;

-- errors above the aggregates: the reader's at the read, the view's when a window closes
TRUNCATE er;
INSERT INTO er SELECT 2, 1, 'three', '2026-01-01 00:05:00Z' FROM generate_series(1, 3);
CREATE FUNCTION er_above(bigint) RETURNS bigint IMMUTABLE LANGUAGE plpgsql AS
  $$ BEGIN IF $1 = 3 THEN RAISE EXCEPTION 'three'; END IF; RETURN $1; END $$;
CREATE MATERIALIZED VIEW er_above_k USING continuous AS SELECT k, er_above(count(*)) AS n FROM er GROUP BY k;
CREATE MATERIALIZED VIEW er_above_w USING continuous WITH (on_error = skip) AS
  SELECT window_start, er_above(count(*)) AS n FROM er, tumble(ts, '1 minute') GROUP BY window_start;
SELECT weir.wait_for();
SELECT * FROM er_above_k;
SELECT * FROM er_above_w;
SELECT weir.checkpoint();
INSERT INTO er SELECT 2, 1, 'three', '2026-01-01 00:06:00Z';
SELECT weir.wait_for('er_above_k');
SELECT * FROM er_above_k;
SELECT weir.checkpoint();
\set VERBOSITY terse
SELECT weir.wait_for('er_above_w');
\set VERBOSITY default
SELECT state, error FROM weir.views WHERE view = 'er_above_w'::regclass;
SELECT event, sqlstate, message FROM weir.errors WHERE view = 'er_above_w'::regclass;
CREATE OR REPLACE FUNCTION er_above(bigint) RETURNS bigint IMMUTABLE LANGUAGE sql AS 'SELECT $1';
SELECT weir.resume('er_above_w');
SELECT weir.wait_for('er_above_w');
SELECT weir.checkpoint();
SELECT * FROM er_above_w ORDER BY 1;
SELECT * FROM er_above_w TABLESAMPLE system (100);
DROP FUNCTION er_above CASCADE;

-- what is repaired: a function
CREATE FUNCTION er_check(int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS
  $$ BEGIN IF $1 = 77 THEN RAISE EXCEPTION 'unlucky %', $1 USING ERRCODE = 'P7777'; END IF; RETURN $1; END $$;
CREATE MATERIALIZED VIEW er_repair USING continuous AS SELECT sum(er_check(v)) AS s, count(*) AS n FROM er;
SELECT weir.wait_for('er_repair');
SELECT * FROM er_repair;
INSERT INTO er VALUES (1, 77, 'seven', '2026-01-01 00:01:00Z');
INSERT INTO er VALUES (1, 78, 'eight', '2026-01-01 00:01:00Z');
\set VERBOSITY terse
SELECT weir.wait_for('er_repair');
\set VERBOSITY default
SELECT state, error FROM weir.views WHERE view = 'er_repair'::regclass;
SELECT event - 'ts' AS event, sqlstate, message FROM weir.errors WHERE view = 'er_repair'::regclass;
CREATE OR REPLACE FUNCTION er_check(int) RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT $1';
SELECT weir.resume('er_repair');
SELECT weir.wait_for('er_repair');
SELECT * FROM er_repair;
SELECT sum(v), count(*) FROM er;
DROP FUNCTION er_check CASCADE;
-- what a function itself calls transient is tried again, but not for ever
CREATE FUNCTION er_claim(int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS
  $$ BEGIN
    IF $1 = 91 THEN RAISE EXCEPTION 'claim %', $1 USING ERRCODE = 'serialization_failure'; END IF;
    IF $1 = 92 THEN RAISE EXCEPTION 'claim %', $1 USING ERRCODE = 'connection_failure'; END IF;
    IF $1 = 93 THEN RAISE EXCEPTION 'claim %', $1 USING ERRCODE = 'io_error'; END IF;
    RETURN $1; END $$;
CREATE MATERIALIZED VIEW er_claim_skip USING continuous WITH (on_error = skip) AS SELECT sum(er_claim(v)) AS s, count(*) AS n FROM er;
CREATE MATERIALIZED VIEW er_claim_stop USING continuous AS SELECT sum(er_claim(v)) AS s, count(*) AS n FROM er;
SELECT weir.wait_for('er_claim_skip'), weir.wait_for('er_claim_stop');
INSERT INTO er VALUES (1, 90, 'before', '2026-01-01 00:01:00Z');
INSERT INTO er SELECT 1, i, 'claim', '2026-01-01 00:01:00Z' FROM generate_series(90, 94) i;
SELECT weir.wait_for('er_claim_skip');
\set VERBOSITY terse
SELECT weir.wait_for('er_claim_stop');
\set VERBOSITY default
SELECT s, n FROM er_claim_skip EXCEPT ALL SELECT sum(v), count(*) FROM er WHERE v NOT IN (91, 92, 93);
SELECT s, n FROM er_claim_stop EXCEPT ALL SELECT sum(v), count(*) FROM er WHERE note IS DISTINCT FROM 'claim';
SELECT weir.checkpoint();
SELECT view, state, error FROM weir.views WHERE view::text LIKE 'er_claim%' ORDER BY view::text;
SELECT view, event->>'v' AS v, sqlstate, message FROM weir.errors WHERE view::text LIKE 'er_claim%' ORDER BY view::text, id;
DROP FUNCTION er_claim CASCADE;
-- what raises is the aggregate, to which rows come many at a time: just that event is left out
CREATE FUNCTION er_step(bigint, int) RETURNS bigint IMMUTABLE STRICT LANGUAGE plpgsql AS
  $$ BEGIN IF $2 = 213 THEN RAISE EXCEPTION 'step %', $2; END IF; RETURN $1 + $2; END $$;
CREATE AGGREGATE er_sum(int) (SFUNC = er_step, STYPE = bigint, INITCOND = '0');
CREATE MATERIALIZED VIEW er_stepped USING continuous WITH (on_error = skip) AS SELECT er_sum(v) AS s, count(*) AS n FROM er;
SELECT weir.wait_for('er_stepped');
INSERT INTO er SELECT 1, i, 'step', '2026-01-01 00:01:00Z' FROM generate_series(201, 240) i;
SELECT weir.wait_for('er_stepped');
SELECT s, n FROM er_stepped EXCEPT ALL SELECT sum(v), count(*) FROM er WHERE v <> 213;
SELECT weir.checkpoint();
SELECT event->>'v' AS v, sqlstate, message FROM weir.errors WHERE view = 'er_stepped'::regclass;
DROP AGGREGATE er_sum(int) CASCADE;
DROP FUNCTION er_step;
-- a rebuild counts anew, and its errors take the place of the others
INSERT INTO er VALUES (1, 0, 'rebuilt', '2026-01-01 00:07:00Z');
CREATE MATERIALIZED VIEW er_rebuilt USING continuous WITH (on_error = skip) AS SELECT sum(1 / v) AS s FROM er;
SELECT weir.wait_for('er_rebuilt');
SELECT weir.checkpoint();
SELECT event->>'note' AS note, sqlstate FROM weir.errors WHERE view = 'er_rebuilt'::regclass;
REFRESH MATERIALIZED VIEW er_rebuilt;
SELECT weir.wait_for('er_rebuilt');
SELECT weir.checkpoint();
SELECT id IS NOT NULL AS id, event->>'note' AS note, sqlstate FROM weir.errors WHERE view = 'er_rebuilt'::regclass;
SELECT count(DISTINCT generation) FROM weir.error_log WHERE view = 'er_rebuilt'::regclass;
-- but for one that fails
ALTER MATERIALIZED VIEW er_rebuilt SET (on_error = stop);
REFRESH MATERIALIZED VIEW er_rebuilt;
\set VERBOSITY terse
SELECT weir.wait_for('er_rebuilt');
\set VERBOSITY default
SELECT event->>'note' AS note, sqlstate FROM weir.errors WHERE view = 'er_rebuilt'::regclass ORDER BY id;
ALTER MATERIALIZED VIEW er_rebuilt SET (on_error = skip);
SELECT weir.resume('er_rebuilt');
SELECT weir.wait_for('er_rebuilt');
SELECT weir.checkpoint();
SELECT event->>'note' AS note, sqlstate FROM weir.errors WHERE view = 'er_rebuilt'::regclass ORDER BY id;
-- errors go with their view
SELECT count(*) FROM weir.errors WHERE message LIKE 'unlucky%';
DROP TABLE er CASCADE;
SELECT count(*) FROM weir.error_log;
