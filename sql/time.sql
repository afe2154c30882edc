-- The ends of time, and times that are none: event times and watermarks.
SET timezone = 'UTC';
SET datestyle = 'ISO';
SET client_min_messages = warning;
\set SHOW_CONTEXT never
\set VERBOSITY terse

-- NULL and infinity are no event times, in either type
CREATE TABLE tm_a (k int, ts timestamptz) USING stream WITH (event_time = ts, watermark_delay = '0');
CREATE TABLE tm_b (k int, ts timestamp) USING stream WITH (event_time = ts, watermark_delay = '0');
CREATE MATERIALIZED VIEW tm_av USING continuous AS
  SELECT window_start, window_end, count(*) AS n FROM tm_a, tumble(ts, '1 day') GROUP BY window_start, window_end;
CREATE FUNCTION refused(command text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN EXECUTE command; RETURN 'accepted'; EXCEPTION WHEN OTHERS THEN RETURN sqlstate; END $$;
SELECT s, v, refused(format('INSERT INTO %s VALUES (1, %s)', s, v))
  FROM unnest(ARRAY['tm_a', 'tm_b']) s, unnest(ARRAY['NULL', '''infinity''', '''-infinity''', 'DEFAULT']) v ORDER BY 1, 2;
COPY tm_a FROM stdin;
1	\N
\.
COPY tm_a FROM stdin;
1	infinity
\.
SELECT count(*) FROM tm_a;
SELECT weir.watermark('tm_a'), weir.watermark('tm_av');
SELECT weir.watermark(NULL), weir.is_final(NULL, now()), weir.is_final('tm_av', NULL::timestamptz);
-- before the first event nothing is final
SELECT weir.is_final('tm_av', '4714-12-01 00:00Z BC'::timestamptz), weir.is_final('tm_av', '-infinity'::timestamptz) AS none;
-- -infinity is where W is: no way back
SELECT weir.advance_watermark('tm_a', '-infinity');

-- the first event is the oldest there can be
INSERT INTO tm_a VALUES (1, '4714-11-24 00:00:00Z BC');
SELECT weir.wait_for();
SELECT weir.watermark('tm_a'), weir.watermark('tm_av');
SELECT weir.advance_watermark('tm_a', '-infinity');
SELECT weir.advance_watermark('tm_a', '4713-01-01 00:00Z BC');
SELECT weir.wait_for();
SELECT *, weir.is_final('tm_av', window_end) FROM tm_av;
INSERT INTO tm_a VALUES (2, '4714-11-24 23:59:59.999999Z BC'), (2, '4713-01-01 00:00Z BC');
SELECT weir.wait_for();
TABLE tm_av ORDER BY 1;
SELECT late FROM weir.views WHERE view = 'tm_av'::regclass;

-- a delay that leads out of the range: W is the earliest time there is
CREATE TABLE tm_d (k int, ts timestamptz) USING stream WITH (event_time = ts, watermark_delay = '36500000 days');
SELECT weir.watermark('tm_d');
INSERT INTO tm_d VALUES (1, '2026-01-01Z');
SELECT weir.watermark('tm_d');
INSERT INTO tm_d VALUES (1, '4714-11-24 00:00:00Z BC');
SELECT weir.watermark('tm_d');
ALTER TABLE tm_d SET (watermark_delay = '1 microsecond');
INSERT INTO tm_d VALUES (1, '4714-11-24 00:00:00Z BC');
SELECT weir.watermark('tm_d');
INSERT INTO tm_d VALUES (1, '4714-11-24 00:00:00.000002Z BC');
SELECT weir.watermark('tm_d');

-- the far future: refused, and when it is not, W stays with the clock
SELECT refused('INSERT INTO tm_a VALUES (3, ''294276-12-31 23:59:59.999999Z'')'),
  refused('INSERT INTO tm_a SELECT 3, clock_timestamp() + interval ''1 day 1 minute'''),
  refused('SELECT weir.advance_watermark(''tm_a'', now() + interval ''1 day 1 minute'')');
INSERT INTO tm_a VALUES (4, now() + interval '23 hours');
SELECT weir.wait_for();
SELECT weir.watermark('tm_a') <= clock_timestamp() AS clamped, weir.watermark('tm_a') > clock_timestamp() - interval '1 minute' AS moved,
  weir.watermark('tm_a') = weir.watermark('tm_av') AS same;
-- without the guard it moves W, and makes all before it late
ALTER TABLE tm_a SET (max_future = infinity);
INSERT INTO tm_a VALUES (5, '294276-12-30 12:00Z');
INSERT INTO tm_a VALUES (6, now());
SELECT weir.wait_for();
SELECT weir.watermark('tm_a');
SELECT late FROM weir.views WHERE view = 'tm_av'::regclass;
SELECT weir.advance_watermark('tm_a', '294276-12-31 23:59:59.999999Z');
SELECT weir.wait_for();
SELECT window_end, n, weir.is_final('tm_av', window_end) FROM tm_av WHERE n > 0 AND window_end > '200000-01-01Z';
-- the last window would end out of range: an error for the batch query, and one for the view
INSERT INTO tm_a VALUES (7, '294276-12-31 12:00Z');
SELECT window_end FROM tm_a, tumble(ts, '1 day') WHERE k = 7;
SELECT weir.wait_for('tm_av');
SELECT state, error FROM weir.views WHERE view = 'tm_av'::regclass;
-- one that skips it goes on
CREATE MATERIALIZED VIEW tm_as USING continuous WITH (on_error = skip, allowed_lateness = '106000000 days') AS
  SELECT window_start, count(*) AS n FROM tm_a, tumble(ts, '1 day') GROUP BY window_start;
SELECT weir.wait_for('tm_as');
SELECT weir.checkpoint();
SELECT sum(n) FROM tm_as;
SELECT event ->> 'k' AS k, sqlstate FROM weir.errors WHERE view = 'tm_as'::regclass;
DROP TABLE tm_a CASCADE;

-- timestamp: no clock to be ahead of
CREATE MATERIALIZED VIEW tm_bv USING continuous AS
  SELECT window_start, window_end, count(*) AS n FROM tm_b, tumble(ts, '1 day') GROUP BY window_start, window_end;
INSERT INTO tm_b VALUES (1, '4714-11-24 00:00:00 BC');
SELECT weir.wait_for();
SELECT weir.watermark('tm_b'), weir.is_final('tm_bv', '4714-11-24 00:00:00 BC'::timestamp);
INSERT INTO tm_b VALUES (2, '294276-12-30 12:00');
INSERT INTO tm_b VALUES (3, '294276-12-30 11:59'), (3, '294276-12-29 23:59');
SELECT weir.wait_for();
SELECT *, weir.is_final('tm_bv', window_end) FROM tm_bv ORDER BY 1;
SELECT late, watermark FROM weir.views WHERE view = 'tm_bv'::regclass;
SELECT weir.advance_watermark('tm_b', '294276-12-31 23:59:59.999999Z');
DROP TABLE tm_b CASCADE;
DROP TABLE tm_d;

-- windows wider than time itself are errors, never wrapped numbers
CREATE TABLE tm_c (k int, ts timestamptz) USING stream WITH (event_time = ts, max_future = infinity, idle_timeout = '1 s');
SELECT refused($$CREATE MATERIALIZED VIEW tm_cv USING continuous AS SELECT window_start, count(*) FROM tm_c, tumble(ts, '300000000 days') GROUP BY 1$$);
SELECT refused($$SELECT * FROM tumble('2026-01-01Z'::timestamptz, '100000000 days')$$);
SELECT refused($$SELECT * FROM tumble('infinity'::timestamptz, '1 day')$$), refused($$SELECT * FROM tumble('-infinity'::timestamp, '1 day')$$),
  refused($$SELECT * FROM tumble(now(), '1 day', 'infinity')$$), refused($$SELECT * FROM tumble('4714-11-24 12:00Z BC'::timestamptz, '1 day', '4714-11-24 13:00Z BC')$$);
SELECT * FROM tumble(NULL::timestamptz, '1 day');
-- idleness does not lead out of time
CREATE MATERIALIZED VIEW tm_cv USING continuous AS SELECT window_start, count(*) AS n FROM tm_c, tumble(ts, '1 hour') GROUP BY 1;
INSERT INTO tm_c VALUES (1, '294276-12-31 22:59:59.999999Z');
SELECT weir.wait_for();
SELECT weir.watermark('tm_c');
SELECT weir.advance_watermark('tm_c', '294276-12-31 22:59:59.999999Z');
CREATE FUNCTION until(condition text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE ok bool; BEGIN
  FOR i IN 1 .. 6000 LOOP EXECUTE 'SELECT ' || condition INTO ok; IF ok THEN RETURN 'so it is'; END IF; PERFORM pg_sleep(0.01); END LOOP;
  RETURN 'never';
END $$;
SELECT until($$weir.is_final('tm_cv', '294276-12-31 23:00Z'::timestamptz)$$);
SELECT weir.watermark('tm_c') BETWEEN '294276-12-31 23:00Z' AND '294276-12-31 23:59:59.999999Z' AS inside;
DROP TABLE tm_c CASCADE;

-- Ingestion time: a column with the clock as its default.  W never falls, and
-- with one writer and no delay every event is on time.
CREATE TABLE tm_i (k int, at timestamptz NOT NULL DEFAULT clock_timestamp()) USING stream WITH (event_time = at, watermark_delay = '0');
CREATE MATERIALIZED VIEW tm_iv USING continuous AS
  SELECT window_start, count(*) AS n FROM tm_i, tumble(at, '10 milliseconds') GROUP BY window_start;
CREATE TABLE tm_w (i int, w timestamptz);
CREATE PROCEDURE ingest(n int) LANGUAGE plpgsql AS $$
BEGIN
  FOR i IN 1 .. n LOOP
    INSERT INTO tm_i (k) SELECT i FROM generate_series(1, 1 + i % 3);
    COMMIT;
    INSERT INTO tm_w VALUES (i, weir.watermark('tm_i'));
  END LOOP;
END $$;
CALL ingest(200);
SELECT weir.wait_for();
SELECT bool_and(w >= before) AS monotone, count(DISTINCT w) > 100 AS moves FROM (SELECT w, lag(w, 1, '-infinity') OVER (ORDER BY i) AS before FROM tm_w) t;
SELECT weir.watermark('tm_i') = (SELECT max(at) FROM tm_i) AS newest, weir.watermark('tm_iv') = weir.watermark('tm_i') AS same;
SELECT late, events_in = (SELECT count(*) FROM tm_i) AS all FROM weir.views WHERE view = 'tm_iv'::regclass;
SELECT count(*) FROM ((TABLE tm_iv EXCEPT ALL SELECT window_start, count(*) FROM tm_i, tumble(at, '10 milliseconds') GROUP BY window_start)
  UNION ALL (SELECT window_start, count(*) FROM tm_i, tumble(at, '10 milliseconds') GROUP BY window_start EXCEPT ALL TABLE tm_iv)) d;
DROP TABLE tm_i CASCADE;
DROP TABLE tm_w;
DROP FUNCTION refused, until;
DROP PROCEDURE ingest;

-- Months, quarters and years in a zone: [first instant, first instant of the next), a leap February too
CREATE TABLE tm_z (id int, ts timestamptz) USING stream WITH (event_time = ts, watermark_delay = '0');
CREATE MATERIALIZED VIEW tm_month USING continuous WITH (emit = final) AS
  SELECT date_trunc('month', ts, 'Europe/Berlin') AS d, array_agg(id) AS ids FROM tm_z GROUP BY 1;
CREATE MATERIALIZED VIEW tm_quarter USING continuous WITH (emit = final) AS
  SELECT date_trunc('quarter', ts, 'Europe/Berlin') AS d, array_agg(id) AS ids FROM tm_z GROUP BY 1;
SET timezone = 'Europe/Berlin';
CREATE MATERIALIZED VIEW tm_year USING continuous WITH (emit = final) AS
  SELECT date_trunc('year', ts) AS d, array_agg(id) AS ids FROM tm_z GROUP BY 1;
SET timezone = 'UTC';
-- the rows that show, and whether their windows are final
CREATE FUNCTION final() RETURNS TABLE (view text, day timestamp, ids int[], final boolean) LANGUAGE plpgsql AS $$
BEGIN
  PERFORM weir.wait_for();
  PERFORM weir.checkpoint();
  RETURN QUERY SELECT q.v, d AT TIME ZONE 'Europe/Berlin', q.ids,
      weir.is_final(('tm_' || v)::regclass, (d AT TIME ZONE 'Europe/Berlin' + length) AT TIME ZONE 'Europe/Berlin')
    FROM (SELECT 'month' AS v, interval '1 month' AS length, * FROM tm_month UNION ALL SELECT 'quarter', '3 months', * FROM tm_quarter
      UNION ALL SELECT 'year', '1 year', * FROM tm_year) q ORDER BY 1, 2;
END $$;
INSERT INTO tm_z VALUES (1, '2024-01-31 22:59:59.999999Z'), (2, '2024-01-31 23:00Z'), (3, '2024-02-28 23:00Z'), (4, '2024-02-29 22:59:59.999999Z');
SELECT * FROM final();
SELECT weir.is_final('tm_month', '2024-02-29 23:00Z'::timestamptz), weir.is_final('tm_quarter', '2024-03-31 22:00Z'::timestamptz), weir.is_final('tm_year', '2024-12-31 23:00Z'::timestamptz);
-- the last instant of February is not beyond it, the first of March is
INSERT INTO tm_z VALUES (5, '2024-02-29 22:59:59.999999Z'), (6, '2024-02-29 23:00Z');
SELECT * FROM final();
-- late for its month, not for its quarter; in summer time it ends an hour earlier, by UTC
INSERT INTO tm_z VALUES (7, '2024-02-29 22:59:59.999999Z'), (8, '2024-03-31 21:59:59.999999Z');
INSERT INTO tm_z VALUES (9, '2024-03-31 21:59:59.999999Z');
SELECT * FROM final() WHERE view = 'quarter';
SELECT weir.is_final('tm_month', '2024-02-29 23:00Z'::timestamptz), weir.is_final('tm_quarter', '2024-03-31 22:00Z'::timestamptz), weir.is_final('tm_year', '2024-12-31 23:00Z'::timestamptz);
INSERT INTO tm_z VALUES (10, '2024-03-31 22:00Z');
SELECT * FROM final();
INSERT INTO tm_z VALUES (11, '2024-12-31 22:59:59.999999Z'), (12, '2024-03-31 22:00Z');
SELECT * FROM final() WHERE view = 'year';
SELECT weir.is_final('tm_quarter', '2024-12-31 23:00Z'::timestamptz), weir.is_final('tm_year', '2024-12-31 23:00Z'::timestamptz);
INSERT INTO tm_z VALUES (13, '2024-12-31 23:00Z');
SELECT * FROM final();
-- 2025 has no 29th of February: it is the first of March then that ends it
INSERT INTO tm_z VALUES (14, '2025-02-28 22:59:59.999999Z');
INSERT INTO tm_z VALUES (15, '2025-02-28 23:00Z');
SELECT * FROM final() WHERE day >= '2025-01-01';
SELECT view, late FROM weir.views WHERE view::text ~ '^tm_' ORDER BY view::text;
DROP TABLE tm_z CASCADE;
DROP FUNCTION final;

-- Events of before the stream had an event time may lack one: a window that meets one fails, or skips it
CREATE TABLE tm_n (k int, ts timestamptz) USING stream;
INSERT INTO tm_n VALUES (1, NULL), (2, '2026-01-01 00:00:30Z'), (3, NULL);
ALTER TABLE tm_n SET (event_time = ts, watermark_delay = '0');
CREATE MATERIALIZED VIEW tm_n1 USING continuous AS SELECT window_end, count(*) AS n FROM tm_n, tumble(ts, '1 minute') GROUP BY window_end;
SELECT weir.wait_for('tm_n1');
SELECT state, error, events_in FROM weir.views WHERE view = 'tm_n1'::regclass;
CREATE MATERIALIZED VIEW tm_n2 USING continuous AS SELECT window_end, count(*) AS n FROM tm_n, tumble(ts, '1 minute') WHERE ts IS NOT NULL GROUP BY window_end;
CREATE MATERIALIZED VIEW tm_n3 USING continuous AS SELECT window_end, count(*) AS n FROM tm_n, session(ts, '1 minute') WHERE k % 2 = 0 GROUP BY window_end;
CREATE MATERIALIZED VIEW tm_n4 USING continuous AS SELECT ts, window_end, count(*) AS n FROM tm_n, count_window(2) GROUP BY ts, window_end;
CREATE MATERIALIZED VIEW tm_n5 USING continuous AS SELECT count(*) AS n, count(ts) AS c FROM tm_n, tumble(now(), '100000 days') GROUP BY window_end;
CREATE MATERIALIZED VIEW tm_s1 USING continuous WITH (on_error = skip) AS SELECT window_end, count(*) AS n FROM tm_n, tumble(ts, '1 minute') GROUP BY window_end;
CREATE MATERIALIZED VIEW tm_s2 USING continuous WITH (on_error = skip) AS SELECT window_end, count(*) AS n FROM tm_n, hop(ts, '1 minute', '2 minutes') GROUP BY window_end;
CREATE MATERIALIZED VIEW tm_s3 USING continuous WITH (on_error = skip) AS SELECT window_end, count(*) AS n FROM tm_n, cumulate(ts, '1 minute', '2 minutes') GROUP BY window_end;
CREATE MATERIALIZED VIEW tm_s4 USING continuous WITH (on_error = skip) AS SELECT window_end, count(*) AS n FROM tm_n, session(ts, '1 minute') GROUP BY window_end;
CREATE MATERIALIZED VIEW tm_s5 USING continuous WITH (on_error = skip) AS SELECT date_trunc('month', ts) AS d, count(*) AS n FROM tm_n GROUP BY 1;
DROP MATERIALIZED VIEW tm_n1;
SELECT weir.wait_for();
SELECT weir.checkpoint();
TABLE tm_n2;
TABLE tm_n3;
TABLE tm_n4 ORDER BY ts;
TABLE tm_n5;
SELECT 's1' AS view, * FROM tm_s1 UNION ALL SELECT 's2', * FROM tm_s2 UNION ALL SELECT 's3', * FROM tm_s3 UNION ALL SELECT 's4', * FROM tm_s4 UNION ALL SELECT 's5', * FROM tm_s5 ORDER BY 1, 2;
SELECT view, event ->> 'k' AS k, message FROM weir.errors WHERE view::text ~ '^tm_s' ORDER BY view::text, 2;
SELECT DISTINCT sqlstate FROM weir.errors WHERE view::text ~ '^tm_s';
-- none may come from now on, and those there are stay errors for a rebuild
INSERT INTO tm_n VALUES (4, NULL);
INSERT INTO tm_n VALUES (5, '2026-01-01 00:01:30Z');
REFRESH MATERIALIZED VIEW tm_s1;
SELECT weir.wait_for();
SELECT * FROM tm_n2 ORDER BY 1;
SELECT * FROM tm_s1 ORDER BY 1;
SELECT count(*) FROM weir.errors WHERE view = 'tm_s1'::regclass;
DROP TABLE tm_n CASCADE;
