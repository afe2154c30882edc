-- What an operator calls and sees.
SET timezone = 'UTC';
CREATE TABLE op (k int, v int, ts timestamptz NOT NULL)
  USING stream WITH (event_time = ts, watermark_delay = '10 seconds');
CREATE MATERIALIZED VIEW op_w USING continuous AS
  SELECT window_start, window_end, k, sum(v) AS s
  FROM op, tumble(ts, '1 minute') GROUP BY window_start, window_end, k;
CREATE MATERIALIZED VIEW op_k USING continuous AS
  SELECT k, count(*) AS n, avg(v) AS a FROM op GROUP BY k;
CREATE TABLE plain (k int);

-- the columns are fixed
SELECT attrelid::regclass, string_agg(attname || ' ' || format_type(atttypid, atttypmod), ', ' ORDER BY attnum) AS columns
FROM pg_attribute WHERE attrelid IN ('weir.streams'::regclass, 'weir.views'::regclass, 'weir.workers'::regclass, 'weir.errors'::regclass)
  AND attnum > 0 GROUP BY attrelid ORDER BY attrelid::regclass::text;

-- settings
SHOW weir.max_workers;
SHOW weir.max_held_log;
SHOW weir.compression;
SELECT name, context, vartype, unit FROM pg_settings WHERE name LIKE 'weir.%' AND name NOT LIKE 'weir.debug%' ORDER BY name;
SET weir.compression = lz4;
SET weir.compression = gzip;
RESET weir.compression;
SET weir.max_workers = 1;
SET weir.no_such_setting = 1;

-- wait_for
SELECT weir.wait_for('op_w');
SELECT weir.wait_for();
SELECT weir.wait_for('op_w', '0');
SELECT weir.wait_for('op_w', '-178000000 years');
SELECT weir.wait_for('plain');
SELECT weir.wait_for('op');
SELECT weir.wait_for(0);
SELECT weir.wait_for('op_w', '-1 s');
SELECT weir.wait_for('op_w', NULL);
BEGIN;
CREATE MATERIALIZED VIEW op_new USING continuous AS SELECT count(*) FROM op;
SELECT weir.wait_for('op_new');
ROLLBACK;
CREATE MATERIALIZED VIEW op_off USING continuous AS SELECT count(*) FROM op WITH NO DATA;
SELECT weir.wait_for('op_off');
SELECT weir.pause('op_off');
DROP MATERIALIZED VIEW op_off;

-- watermark and is_final
SELECT weir.watermark('op'), weir.watermark('op_w');
SELECT weir.watermark('plain');
INSERT INTO op VALUES (1, 1, '2026-01-01 00:00:30+00'), (2, 2, '2026-01-01 00:01:15+00');
SELECT weir.wait_for();
SELECT weir.watermark('op'), weir.watermark('op_w');
SELECT k, weir.is_final('op_w', window_end) FROM op_w ORDER BY k;
SELECT weir.is_final('op_w', timestamp '2026-01-01 00:01:00'), weir.is_final('op_w', timestamptz '2026-01-01 00:01:06+00');
SELECT weir.is_final('op_w', NULL::timestamptz) IS NULL AS null;
SELECT weir.is_final('op_k', now());
SELECT weir.is_final('plain', now());

-- advance_watermark
SELECT weir.advance_watermark('op', '2026-01-01 00:01:30+00');
SELECT weir.wait_for();
SELECT weir.watermark('op'), weir.watermark('op_w');
SELECT weir.advance_watermark('op', '2026-01-01 00:00:00+00');
SELECT weir.watermark('op');
BEGIN;
SELECT weir.advance_watermark('op', '2026-01-01 00:10:00+00');
INSERT INTO op VALUES (3, 3, '2026-01-01 00:01:50+00');
ROLLBACK;
SELECT weir.watermark('op');
-- it counts after the rows of its own transaction
BEGIN;
SELECT weir.advance_watermark('op', '2026-01-01 00:10:00+00');
INSERT INTO op VALUES (3, 3, '2026-01-01 00:01:50+00');
COMMIT;
SELECT weir.wait_for();
SELECT weir.watermark('op'), weir.watermark('op_w');
SELECT k, s, weir.is_final('op_w', window_end) FROM op_w ORDER BY k;
\set VERBOSITY sqlstate
SELECT weir.advance_watermark('op', now() + '2 days');
SELECT weir.advance_watermark('plain', now());
SELECT weir.advance_watermark('op_w', now());
BEGIN READ ONLY;
SELECT weir.advance_watermark('op', now());
ROLLBACK;
\set VERBOSITY default
CREATE TABLE op_untimed (k int) USING stream;
SELECT weir.advance_watermark('op_untimed', now());
DROP TABLE op_untimed;

-- pause and resume
SELECT weir.pause('op_k');
SELECT weir.pause('op_k');
INSERT INTO op VALUES (4, 4, '2026-01-01 00:20:00+00');
SELECT weir.wait_for('op_k');
SELECT weir.wait_for();
SELECT state FROM weir.views WHERE view = 'op_k'::regclass;
SELECT k, n FROM op_k ORDER BY k;
BEGIN;
SELECT weir.resume('op_k');
ROLLBACK;
SELECT state FROM weir.views WHERE view = 'op_k'::regclass;
SELECT weir.resume('op_k');
SELECT weir.wait_for('op_k');
SELECT k, n FROM op_k ORDER BY k;
SELECT weir.pause('plain');
BEGIN;
SELECT weir.pause('op_k');
PREPARE TRANSACTION 'weir_operate';

-- checkpoint
SELECT weir.checkpoint();
SELECT count(*) FROM op_w TABLESAMPLE system (100);
SELECT view, checkpoint_at IS NOT NULL AS at, checkpoint_ms >= 0 AS ms, checkpoint_bytes >= 0 AS bytes
FROM weir.views ORDER BY view::text;

-- the views
SELECT stream, rows_in, bytes_in > 0 AS bytes, oldest_event, newest_event, log_bytes > 0 AS log,
  watermark, refused_future, oldest_writer, held_by IS NOT NULL AS held, writers_waiting FROM weir.streams;
\set VERBOSITY terse
INSERT INTO op VALUES (1, 1, '2126-01-01 00:00:00+00');
\set VERBOSITY default
SELECT refused_future FROM weir.streams;
BEGIN;
INSERT INTO op VALUES (1, 1, '2026-01-01 00:20:00+00');
SELECT oldest_writer IS NOT NULL AS writer FROM weir.streams;
ROLLBACK;
BEGIN;
INSERT INTO op VALUES (1, 1, '2026-01-01 00:20:00+00');
PREPARE TRANSACTION 'weir_operate';
SELECT oldest_writer IS NOT NULL AS writer FROM weir.streams;
ROLLBACK PREPARED 'weir_operate';
SELECT view, owner = current_user::regrole AS owner, state, error, worker_pid IS NOT NULL AS pid, events_in, late, late_partial,
  groups, state_bytes > 0 AS bytes, spilled_bytes, final_rows, watermark, lag_events, lag_bytes, lag, batch_ms >= 0 AS batch,
  visible_p50_ms > 0 AS p50, visible_p99_ms >= visible_p50_ms AS p99, build_done, build_total
FROM weir.views ORDER BY view::text;
SELECT bool_or(v @> ARRAY['op_k'::regclass]) AS op_k, bool_and(batches >= 0 AND busy_ms >= 0 AND idle_ms >= 0) AS sane
FROM (SELECT *, views AS v FROM weir.workers) w;

-- errors
CREATE MATERIALIZED VIEW op_err USING continuous WITH (on_error = skip) AS
  SELECT k, sum(100 / (v - 4)) AS s FROM op GROUP BY k;
CREATE MATERIALIZED VIEW op_stop USING continuous AS
  SELECT k, sum(100 / (v - 4)) AS s FROM op GROUP BY k;
SELECT weir.wait_for('op_err');
SELECT k, s FROM op_err ORDER BY k;
\set VERBOSITY terse
SELECT weir.wait_for('op_stop');
SELECT weir.wait_for();
\set VERBOSITY default
SELECT view, state, error FROM weir.views WHERE view = 'op_stop'::regclass;
SELECT weir.checkpoint();
SELECT view, stream, event - 'ts' AS event, sqlstate, message FROM weir.errors ORDER BY view::text;

-- explain
SELECT regexp_replace(regexp_replace(line, 'State: .*', 'State: ...'), 'since .*', 'since ...') FROM weir.explain('op_w') line;
SELECT count(*) > 5 AS lines FROM weir.explain('op_k');
SELECT weir.explain('plain');

-- who may
CREATE ROLE regress_weir_some;
SET ROLE regress_weir_some;
SELECT count(*) FROM weir.streams;
SELECT count(*) FROM weir.views;
SELECT count(*) FROM weir.errors;
SELECT weir.watermark('op');
SELECT weir.is_final('op_w', now());
SELECT weir.explain('op_w');
SELECT weir.wait_for('op_w');
SELECT weir.wait_for(); -- of those that have failed nothing is said
SELECT weir.advance_watermark('op', now());
SELECT weir.pause('op_k');
SELECT weir.resume('op_k');
SELECT weir.checkpoint();
TABLE weir.view_wish;
RESET ROLE;
GRANT SELECT ON op_err, op_stop TO regress_weir_some;
SET ROLE regress_weir_some;
SELECT view, state, error FROM weir.views ORDER BY view::text;
SELECT view, event, sqlstate, message FROM weir.errors ORDER BY view::text;
\set VERBOSITY terse
SELECT weir.wait_for('op_stop');
SELECT weir.wait_for();
\set VERBOSITY default
RESET ROLE;

DROP MATERIALIZED VIEW op_w, op_k, op_err, op_stop;
DROP TABLE op, plain;
DROP ROLE regress_weir_some;
SELECT count(*) FROM weir.views;
SELECT count(*) FROM weir.errors;
