-- What is let go, and what is kept whatever the options say; idle streams.
SET timezone = 'UTC';
SET datestyle = 'ISO';
CREATE TABLE rt (k int, ts timestamptz NOT NULL)
  USING stream WITH (event_time = ts, watermark_delay = '0');
CREATE MATERIALIZED VIEW rt_w USING continuous WITH (retention = '10 minutes') AS
  SELECT window_start, count(*) AS n FROM rt, tumble(ts, '1 minute') GROUP BY window_start;
CREATE MATERIALIZED VIEW rt_all USING continuous AS
  SELECT window_end, count(*) AS n FROM rt, tumble(ts, '1 minute') GROUP BY window_end;
CREATE MATERIALIZED VIEW rt_k USING continuous AS SELECT count(*) AS n FROM rt;
INSERT INTO rt SELECT i, timestamptz '2026-01-01 00:00:00Z' + i * interval '30 s' FROM generate_series(0, 39) i;
SELECT weir.wait_for();
SELECT weir.checkpoint();
-- W is 00:19:30; windows that ended before 00:09:30 go
SELECT min(window_start), count(*), sum(n) FROM rt_w;
SELECT min(window_end), count(*), sum(n) FROM rt_all;
INSERT INTO rt VALUES (40, '2026-01-01 00:30:00Z');
SELECT weir.wait_for();
SELECT weir.checkpoint();
SELECT min(window_start), count(*), sum(n) FROM rt_w;
SELECT count(*) FROM rt_w TABLESAMPLE system (100);
SELECT final_rows FROM weir.views WHERE view = 'rt_w'::regclass;
ALTER MATERIALIZED VIEW rt_w SET (retention = '1 minute');
SELECT weir.wait_for();
SELECT weir.checkpoint();
SELECT min(window_start), count(*), sum(n) FROM rt_w;
ALTER MATERIALIZED VIEW rt_w RESET (retention);
-- a view's retention is its own
SELECT count(*) FROM rt;
SELECT n FROM rt_k;
CREATE MATERIALIZED VIEW rt_bad USING continuous WITH (retention = '1 minute') AS SELECT count(*) AS n FROM rt;
CREATE MATERIALIZED VIEW rt_bad USING continuous WITH (retention = '1 minute') AS
  SELECT count(*) AS n FROM rt, tumble(ts, '1 minute') GROUP BY window_start;

-- the log: nothing that a view has not consumed and checkpointed
SELECT oldest_event, newest_event, log_bytes > 0 AS log, held_by IS NOT NULL AS held FROM weir.streams;
SELECT weir.pause('rt_k');
SELECT weir.checkpoint();
INSERT INTO rt VALUES (41, '2026-01-01 00:31:00Z');
INSERT INTO rt VALUES (42, '2026-01-01 00:32:00Z');
SELECT weir.wait_for('rt_w'), weir.wait_for('rt_all');
ALTER TABLE rt SET (retention = '1 us');
SELECT weir.checkpoint();
SELECT k FROM rt ORDER BY k;
SELECT oldest_event, newest_event, held_by FROM weir.streams;
SELECT weir.resume('rt_k');
SELECT weir.wait_for('rt_k');
SELECT weir.checkpoint();
SELECT count(*) FROM rt;
SELECT oldest_event, newest_event, watermark FROM weir.streams;
SELECT n FROM rt_k;
SELECT sum(n) FROM rt_all;
-- W stays, and what is late for it
SELECT weir.watermark('rt');
INSERT INTO rt VALUES (43, '2026-01-01 00:10:00Z');
SELECT weir.wait_for();
SELECT late FROM weir.views WHERE view = 'rt_all'::regclass;
SELECT sum(n) FROM rt_all;
SELECT n FROM rt_k;
-- an hour is not over
ALTER TABLE rt SET (retention = '1 hour');
SELECT weir.checkpoint();
SELECT k FROM rt;
-- by size: whole transactions, the oldest first
ALTER TABLE rt RESET (retention);
INSERT INTO rt SELECT i, '2026-01-01 00:33:00Z' FROM generate_series(1000, 20000) i;
INSERT INTO rt SELECT i, '2026-01-01 00:33:00Z' FROM generate_series(30000, 49000) i;
SELECT weir.wait_for();
ALTER TABLE rt SET (retention_size = '100kB');
SELECT weir.checkpoint();
SELECT min(k), max(k), count(*) FROM rt;
ALTER TABLE rt SET (retention_size = '1kB');
SELECT weir.checkpoint();
SELECT min(k), max(k), count(*) FROM rt;
ALTER TABLE rt RESET (retention_size);
-- the space is used again
VACUUM rt;
SELECT n FROM rt_k;

-- a stream nobody reads is trimmed, too
CREATE TABLE rt_alone (k int) USING stream WITH (retention = '1 us');
INSERT INTO rt_alone VALUES (1);
DO $$ BEGIN FOR i IN 1 .. 12000 LOOP EXIT WHEN NOT EXISTS (SELECT FROM rt_alone); PERFORM pg_sleep(0.01); END LOOP; END $$;
SELECT count(*) FROM rt_alone;
DROP TABLE rt_alone;

-- TRUNCATE
SELECT weir.pause('rt_k');
INSERT INTO rt VALUES (50, '2026-01-01 00:40:00Z');
SELECT weir.wait_for('rt_w'), weir.wait_for('rt_all');
TRUNCATE rt;
SELECT count(*) > 0 AS there FROM rt;
SELECT weir.resume('rt_k');
SELECT weir.wait_for();
CREATE TABLE rt_before AS SELECT * FROM rt_all;
TRUNCATE rt;
SELECT count(*) FROM rt;
SELECT weir.watermark('rt');
SELECT rows_in > 0 AS rows, oldest_event, watermark FROM weir.streams;
SELECT * FROM rt_all EXCEPT ALL SELECT * FROM rt_before;
SELECT * FROM rt_before EXCEPT ALL SELECT * FROM rt_all;
SELECT weir.watermark('rt_all');
INSERT INTO rt VALUES (51, '2026-01-01 00:40:10Z'), (52, '2026-01-01 00:01:10Z');
SELECT weir.wait_for();
SELECT sum(n) - (SELECT sum(n) FROM rt_before) AS more FROM rt_all;
SELECT weir.watermark('rt'), weir.watermark('rt_all');

DROP TABLE rt_before;
DROP TABLE rt CASCADE;

-- windows that overlap, sessions and months
CREATE TABLE rt_o (k int, ts timestamptz NOT NULL) USING stream WITH (event_time = ts, watermark_delay = '0');
CREATE MATERIALIZED VIEW rt_hop USING continuous WITH (retention = '10 minutes') AS
  SELECT window_start, window_end, count(*) AS n FROM rt_o, hop(ts, '1 minute', '3 minutes') GROUP BY window_start, window_end;
CREATE MATERIALIZED VIEW rt_hop_start USING continuous WITH (retention = '10 minutes') AS
  SELECT window_start, count(*) AS n FROM rt_o, hop(ts, '1 minute', '3 minutes') GROUP BY window_start, window_end;
CREATE MATERIALIZED VIEW rt_cum USING continuous WITH (retention = '10 minutes') AS
  SELECT window_end, count(*) AS n FROM rt_o, cumulate(ts, '1 minute', '5 minutes') GROUP BY window_end;
CREATE MATERIALIZED VIEW rt_cum_start USING continuous WITH (retention = '10 minutes') AS
  SELECT window_start, count(*) AS n FROM rt_o, cumulate(ts, '1 minute', '5 minutes') GROUP BY window_start, window_end;
CREATE MATERIALIZED VIEW rt_ses USING continuous WITH (retention = '10 minutes') AS
  SELECT window_end, count(*) AS n FROM rt_o, session(ts, '30 s') GROUP BY window_end;
CREATE MATERIALIZED VIEW rt_month USING continuous WITH (retention = '31 days') AS
  SELECT date_trunc('month', ts) AS month, count(*) AS n FROM rt_o GROUP BY 1;
-- rows in which a view and its query, of windows that did not end before W less retention, differ
CREATE FUNCTION differ() RETURNS TABLE (view text, rows bigint, differ bigint) LANGUAGE plpgsql AS $$
DECLARE r record; BEGIN
  FOR r IN SELECT * FROM (VALUES
      ('rt_hop', 'SELECT window_start, window_end, count(*) FROM rt_o, hop(ts, ''1 minute'', ''3 minutes'') GROUP BY 1, 2 HAVING window_end >= $1'),
      ('rt_hop_start', 'SELECT window_start, count(*) FROM rt_o, hop(ts, ''1 minute'', ''3 minutes'') GROUP BY 1, window_end HAVING window_end >= $1'),
      ('rt_cum', 'SELECT window_end, count(*) FROM rt_o, cumulate(ts, ''1 minute'', ''5 minutes'') GROUP BY 1 HAVING window_end >= $1'),
      ('rt_cum_start', 'SELECT window_start, count(*) FROM rt_o, cumulate(ts, ''1 minute'', ''5 minutes'') GROUP BY 1, window_end HAVING window_end >= $1'),
      ('rt_ses', 'SELECT window_end, count(*) FROM rt_o, session(ts, ''30 s'') GROUP BY 1 HAVING window_end >= $1'),
      ('rt_month', 'SELECT date_trunc(''month'', ts), count(*) FROM rt_o GROUP BY 1 HAVING date_trunc(''month'', ts) + interval ''1 month'' >= $2'))
      v(name, query) LOOP
    view := r.name;
    EXECUTE format('SELECT (SELECT count(*) FROM %1$I), (SELECT count(*) FROM ((TABLE %1$I EXCEPT ALL %2$s) UNION ALL (%2$s EXCEPT ALL TABLE %1$I)) d)', r.name, r.query)
      INTO rows, differ USING weir.watermark('rt_o') - interval '10 minutes', weir.watermark('rt_o') - interval '31 days';
    RETURN NEXT;
  END LOOP;
END $$;
-- W is 00:20:40
INSERT INTO rt_o SELECT i, timestamptz '2020-01-01 00:00:00Z' + i * interval '40 s' FROM generate_series(0, 31) i;
SELECT weir.wait_for();
SELECT weir.checkpoint();
SELECT * FROM differ();
SELECT min(window_end) FROM rt_hop;
-- as old as retention, to the microsecond, stays
INSERT INTO rt_o VALUES (100, '2020-01-01 00:25:00Z');
SELECT weir.wait_for();
SELECT weir.checkpoint();
SELECT * FROM differ() WHERE view <> 'rt_cum_start';
SELECT (SELECT min(window_end) FROM rt_hop) AS hop, (SELECT min(window_end) FROM rt_cum) AS cum;
INSERT INTO rt_o VALUES (101, '2020-02-15Z'), (102, '2020-03-03Z');
SELECT weir.wait_for();
SELECT weir.checkpoint();
SELECT * FROM differ();
SELECT min(month) FROM rt_month;
INSERT INTO rt_o VALUES (103, '2020-03-03 00:00:00.000001Z');
SELECT weir.wait_for();
SELECT weir.checkpoint();
SELECT * FROM differ();
SELECT min(month) FROM rt_month;
DROP TABLE rt_o CASCADE;
DROP FUNCTION differ;

-- an idle stream's windows close
CREATE TABLE rt_idle (k int, ts timestamptz NOT NULL)
  USING stream WITH (event_time = ts, watermark_delay = '0', idle_timeout = '100 ms');
CREATE MATERIALIZED VIEW rt_i USING continuous WITH (emit = final) AS
  SELECT window_start, count(*) AS n FROM rt_idle, tumble(ts, '1 second') GROUP BY window_start;
INSERT INTO rt_idle VALUES (1, '2026-01-01 00:00:00.1Z'), (2, '2026-01-01 00:00:00.2Z');
SELECT weir.wait_for();
DO $$ BEGIN FOR i IN 1 .. 12000 LOOP EXIT WHEN EXISTS (SELECT FROM rt_i); PERFORM pg_sleep(0.01); END LOOP; END $$;
SELECT * FROM rt_i;
-- W went on with the clock, not to it
SELECT weir.watermark('rt_idle') >= '2026-01-01 00:00:01Z' AS closed, weir.watermark('rt_idle') < '2026-01-01 01:00:00Z' AS near;
-- and it is the stream's: rows are late by it, and idle it moves no further without need
INSERT INTO rt_idle VALUES (3, '2026-01-01 00:00:00.3Z');
SELECT weir.wait_for();
SELECT late FROM weir.views WHERE view = 'rt_i'::regclass;
SELECT * FROM rt_i;
SELECT count(*) FROM rt_idle;
DROP TABLE rt_idle CASCADE;

-- also one that is told so while a view reads it
CREATE TABLE rt_told (ts timestamptz NOT NULL) USING stream WITH (event_time = ts, watermark_delay = '0');
CREATE MATERIALIZED VIEW rt_t USING continuous WITH (emit = final) AS
  SELECT window_start, count(*) AS n FROM rt_told, tumble(ts, '1 second') GROUP BY window_start;
INSERT INTO rt_told VALUES ('2026-01-01 00:00:00.1Z');
SELECT weir.wait_for('rt_t');
ALTER TABLE rt_told SET (idle_timeout = '100 ms');
DO $$ BEGIN FOR i IN 1 .. 3000 LOOP EXIT WHEN EXISTS (SELECT FROM rt_t); PERFORM pg_sleep(0.01); END LOOP; END $$;
SELECT * FROM rt_t;
DROP TABLE rt_told CASCADE;
