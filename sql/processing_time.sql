-- Windows over now(): processing time.
SET timezone = 'UTC';
SET datestyle = 'ISO';
SET intervalstyle = postgres;
SET client_min_messages = warning;
\set SHOW_CONTEXT never
CREATE TABLE pt (k int, v int, ts timestamptz) USING stream WITH (event_time = ts);
CREATE TABLE pt_plain (k int, v int) USING stream;
CREATE TABLE pt_heap (k int, v int, ts timestamptz);
CREATE FUNCTION until(condition text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE ok bool; BEGIN
  FOR i IN 1 .. 6000 LOOP EXECUTE 'SELECT ' || condition INTO ok; IF ok THEN RETURN 'so it is'; END IF; PERFORM pg_sleep(0.01); END LOOP;
  RETURN 'never';
END $$;

-- what is refused
CREATE FUNCTION refused(query text, options text DEFAULT '') RETURNS text LANGUAGE plpgsql AS $$
DECLARE h text; BEGIN
  EXECUTE format('CREATE MATERIALIZED VIEW pt_refused USING continuous %s AS %s', options, query);
  DROP MATERIALIZED VIEW pt_refused;
  RETURN 'accepted';
EXCEPTION WHEN OTHERS THEN
  GET STACKED DIAGNOSTICS h = PG_EXCEPTION_HINT;
  RETURN sqlstate || ' ' || sqlerrm || coalesce(' / ' || nullif(h, ''), '');
END $$;
SELECT q, refused(q) FROM unnest(ARRAY[
  'SELECT date_trunc(''minute'', now()) AS w, count(*) FROM pt GROUP BY 1',
  'SELECT date_bin(''1 minute'', now(), ''epoch'') AS w, count(*) FROM pt GROUP BY 1',
  'SELECT window_start, count(*) FROM pt, tumble(clock_timestamp(), ''1 minute'') GROUP BY 1',
  'SELECT window_start, count(*) FROM pt, tumble(statement_timestamp(), ''1 minute'') GROUP BY 1',
  'SELECT window_start, count(*) FROM pt, tumble(localtimestamp, ''1 minute'') GROUP BY 1',
  'SELECT window_start, count(*) FROM pt, tumble(current_timestamp(3), ''1 minute'') GROUP BY 1',
  'SELECT window_start, count(*) FROM pt, tumble(now()::timestamp, ''1 minute'') GROUP BY 1',
  'SELECT window_start, count(*) FROM pt, tumble(now() + ''1 minute'', ''1 minute'') GROUP BY 1',
  'SELECT window_start, count(*) FROM pt, tumble(now(), ''1 month'') GROUP BY 1',
  'SELECT window_start, count(*) FROM pt, tumble(now(), ''1 minute'', now()) GROUP BY 1',
  'SELECT window_start, count(*) FROM pt, tumble(current_date, ''1 minute'') GROUP BY 1',
  'SELECT a.window_start, count(*) FROM pt, tumble(now(), ''1 minute'') a, tumble(ts, ''1 minute'') b GROUP BY 1',
  'SELECT count(*) FROM pt, tumble(now(), ''1 minute'')',
  'SELECT window_start, count(*) FROM pt, tumble(now(), ''1 minute'') WHERE ts > now() GROUP BY 1',
  'SELECT window_start, count(*), now() FROM pt, tumble(now(), ''1 minute'') GROUP BY 1',
  'SELECT window_start, count(*) FROM pt, tumble(now(), ''1 minute'') GROUP BY 1 HAVING window_end < now()',
  'SELECT window_start, count(*) FROM pt, tumble(now(), ''1 minute'') WHERE window_end < now() GROUP BY 1',
  'SELECT window_start, max(weir.arrival()) FROM pt, tumble(now(), ''1 minute'') GROUP BY 1',
  'SELECT weir.arrival(), count(*) FROM pt GROUP BY 1',
  'SELECT weir.tumble_start(weir.arrival(), ''1 minute'', ''epoch''), count(*) FROM pt',
  'SELECT weir.tumble_start(now(), ''1 minute'', ''epoch''), count(*) FROM pt GROUP BY 1',
  'SELECT window_start, count(*) FROM (SELECT * FROM pt, tumble(now(), ''1 minute'') WHERE window_start > ''2020-01-01'') s GROUP BY 1',
  'SELECT window_start, count(*) FROM pt_heap, tumble(now(), ''1 minute'') GROUP BY 1']) q;
SELECT q, refused(q) FROM unnest(ARRAY[
  'SELECT window_end, count(*) FROM pt, session(clock_timestamp(), ''1 minute'') GROUP BY 1',
  'SELECT window_end, count(*) FROM pt, session(now(), now() - ts) GROUP BY 1',
  'SELECT window_end, count(*) FROM pt, session(now(), ''1 minute'') WHERE window_end > ts GROUP BY 1']) q;
SELECT o, refused('SELECT window_start, count(*) FROM pt, tumble(now(), ''1 minute'') GROUP BY 1', format('WITH (%s)', o))
  FROM unnest(ARRAY['allowed_lateness = ''1 minute''', 'allowed_lateness = infinity', 'late_table = ''x''', 'emit = final', 'retention = ''1 hour''', 'on_error = skip']) o;
-- what is not
SELECT q, refused(q) FROM unnest(ARRAY[
  'SELECT window_start, count(*) FROM pt, tumble(current_timestamp, ''1 minute'') GROUP BY 1',
  'SELECT window_start, count(*) FROM pt, tumble(transaction_timestamp(), ''1 minute'', ''2020-01-01Z'') GROUP BY 1',
  'SELECT window_end, k, count(*) FROM pt_plain JOIN LATERAL tumble(now(), ''1 minute'') w ON true GROUP BY 1, 2',
  'SELECT window_start, count(*) FROM pt, hop(now(), ''1 minute'', ''5 minutes'') GROUP BY 1',
  'SELECT window_end, count(*) FROM pt, cumulate(now(), ''1 minute'', ''5 minutes'') GROUP BY 1',
  'SELECT window_end, k, count(*) FROM pt, session(now(), ''1 minute'') GROUP BY 1, 2',
  'SELECT window_start, count(*) FROM (SELECT k, window_start FROM pt, tumble(now(), ''1 minute'')) s GROUP BY 1',
  'WITH s AS (SELECT k, window_start AS w FROM pt, tumble(now(), ''1 minute'')) SELECT w, count(*) FROM s GROUP BY 1']) q;
-- elsewhere now() is now
SELECT count(*) FROM (VALUES (1), (2)) v, tumble(now(), '1 hour') WHERE now() >= window_start AND now() < window_end;
SELECT weir.arrival() = now() AS same;

-- one window for all: its rows are those of the table
CREATE MATERIALIZED VIEW pt_all USING continuous AS
  SELECT window_start, window_end, k, count(*) AS n, sum(v) AS s, max(extract(epoch FROM window_end - window_start)) AS len
  FROM pt, tumble(now(), '100000 days') WHERE v >= 0 GROUP BY window_start, window_end, k HAVING count(*) > 1;
CREATE MATERIALIZED VIEW pt_hop USING continuous AS
  SELECT window_end, count(*) AS n FROM pt, hop(current_timestamp, '100000 days', '300000 days') GROUP BY window_end;
CREATE MATERIALIZED VIEW pt_where USING continuous AS
  SELECT k, window_end, count(*) AS n FROM pt, tumble(now(), '100000 days')
  WHERE window_start > '1969-12-31Z' AND window_start < '1970-01-02Z' AND k < 3 AND (ts < window_end OR k = 1) GROUP BY k, window_end;
CREATE MATERIALIZED VIEW pt_none USING continuous AS
  SELECT k, count(*) AS n FROM pt, tumble(now(), '100000 days') WHERE window_start > '2100-01-01' GROUP BY k, window_start;
CREATE MATERIALIZED VIEW pt_event USING continuous AS
  SELECT window_start, k, count(*) AS n FROM pt, tumble(ts, '1 minute') GROUP BY window_start, k;
INSERT INTO pt VALUES (1, 1, '2020-01-01Z'), (1, 2, '2020-01-02Z'), (2, 3, '1999-01-01Z'), (2, 4, '2019-12-31Z'), (3, 5, '2020-01-01Z'), (1, -1, '2020-01-01Z');
INSERT INTO pt VALUES (1, 6, '1990-01-01Z'), (3, 7, '1999-01-01Z'), (NULL, 8, '1999-01-01Z'), (NULL, NULL, '1999-01-01Z'), (NULL, 9, '1999-01-01Z');
SELECT weir.wait_for();
SELECT k, n, s, len, window_start FROM pt_all ORDER BY k;
SELECT k, count(*) AS n, sum(v) AS s FROM pt WHERE v >= 0 GROUP BY k HAVING count(*) > 1 ORDER BY k;
TABLE pt_hop ORDER BY 1;
TABLE pt_where ORDER BY 1;
TABLE pt_none;
-- late for event time, never for this
SELECT view, late FROM weir.views WHERE late > 0;
SELECT weir.watermark('pt_all') BETWEEN now() - interval '1 minute' AND clock_timestamp() AS of_today, weir.watermark('pt_event');
SELECT weir.watermark('pt_all') = weir.watermark('pt_hop') AS same, (SELECT count(DISTINCT watermark) FROM weir.views WHERE view::text IN ('pt_all', 'pt_hop', 'pt_where', 'pt_none'));
SELECT bool_or(weir.is_final('pt_all', window_end)) FROM pt_all;
SELECT regexp_replace(line, '20\d\d-.*\+00', 'TIME') FROM weir.explain('pt_all') line WHERE line ~ '^(Window|Time|Watermark|Held)';
SELECT pg_get_viewdef('pt_hop') ~ 'hop\(CURRENT_TIMESTAMP, ' AS as_written;

-- the options that make sense, and those that do not
\set VERBOSITY terse
ALTER MATERIALIZED VIEW pt_all SET (allowed_lateness = '1 minute');
ALTER MATERIALIZED VIEW pt_all SET (retention = '1 day', on_error = skip);
-- the event time may change: these do not look at it
ALTER TABLE pt ADD COLUMN ts2 timestamptz;
ALTER TABLE pt SET (event_time = ts2);
DROP MATERIALIZED VIEW pt_event;
ALTER TABLE pt SET (event_time = ts2, watermark_delay = '0');
\set VERBOSITY default
DROP MATERIALIZED VIEW pt_all, pt_hop, pt_where, pt_none;

-- a transaction arrives at once
CREATE MATERIALIZED VIEW pt_t USING continuous AS
  SELECT window_start, window_end, count(*) AS n, count(DISTINCT k) AS ks FROM pt_plain, tumble(now(), '10 milliseconds') GROUP BY window_start, window_end;
CREATE MATERIALIZED VIEW pt_h USING continuous AS
  SELECT window_start, window_end, count(*) AS n FROM pt_plain, hop(now(), '20 milliseconds', '40 milliseconds') GROUP BY window_start, window_end;
CREATE MATERIALIZED VIEW pt_c USING continuous AS
  SELECT window_start, window_end, count(*) AS n FROM pt_plain, cumulate(now(), '20 milliseconds', '60 milliseconds') GROUP BY window_start, window_end;
CREATE MATERIALIZED VIEW pt_f USING continuous WITH (emit = final) AS
  SELECT window_end, sum(v) AS s FROM pt_plain, tumble(now(), '50 milliseconds') GROUP BY window_end;
CREATE MATERIALIZED VIEW pt_s USING continuous AS
  SELECT window_start, window_end, k, count(*) AS n FROM pt_plain, session(now(), '50 milliseconds') GROUP BY window_start, window_end, k;
SELECT clock_timestamp() AS t0 \gset
BEGIN;
INSERT INTO pt_plain SELECT 1, i FROM generate_series(1, 3000) i;
SELECT until(format('clock_timestamp() > %L::timestamptz + interval ''30 milliseconds''', now()));
SAVEPOINT a;
INSERT INTO pt_plain SELECT 2, i FROM generate_series(1, 3000) i;
RELEASE a;
COMMIT;
SELECT clock_timestamp() AS t1 \gset
SELECT weir.wait_for();
SELECT n, ks, window_end - window_start AS size, window_end > :'t0' AND window_start <= :'t1' AS then FROM pt_t;
-- the clock closes windows, without another row, and once for good
SELECT until('weir.is_final(''pt_f'', (SELECT max(window_end) FROM pt_f))'), until('(SELECT bool_and(weir.is_final(''pt_h'', window_end)) FROM pt_h)'),
  until('(SELECT bool_and(weir.is_final(''pt_c'', window_end)) FROM pt_c)'), until('(SELECT bool_and(weir.is_final(''pt_t'', window_end)) FROM pt_t)');
SELECT until('(SELECT bool_and(weir.is_final(''pt_s'', window_end)) FROM pt_s)');
SELECT weir.checkpoint();
SELECT n FROM pt_h ORDER BY window_start;
SELECT k, n, window_end - window_start AS length FROM pt_s ORDER BY k;
SELECT count(*) BETWEEN 1 AND 3 AS of_three, min(n), max(n), count(DISTINCT window_start) FROM pt_c;
SELECT s FROM pt_f;
SELECT view, groups, final_rows BETWEEN 1 AND 3 AS final FROM weir.views WHERE view::text ~ '^pt_[cfht]$' ORDER BY view::text;
SELECT view FROM weir.views WHERE view::text ~ '^pt' AND watermark > now() ORDER BY 1;
-- then it rests: no window is open
CREATE TABLE pt_clock (x int) USING stream;
CREATE MATERIALIZED VIEW pt_cv USING continuous WITH (emit = final) AS SELECT window_end, count(*) FROM pt_clock, tumble(now(), '100 milliseconds') GROUP BY 1;
SELECT weir.watermark('pt_t') AS w \gset
INSERT INTO pt_clock VALUES (1);
SELECT until('EXISTS (SELECT FROM pt_cv)');
SELECT weir.watermark('pt_t') = :'w' AS rests;
-- and goes on with the next event
INSERT INTO pt_plain VALUES (3, 1);
SELECT until('(SELECT count(*) FROM pt_f) = 2');
SELECT weir.watermark('pt_t') > :'w' AS goes_on;
SELECT sum(n) FROM pt_t;

-- many transactions: replay agrees, for a rebuilt view and for a new one
CREATE PROCEDURE feed(n int) LANGUAGE plpgsql AS $$
BEGIN
  FOR i IN 1 .. n LOOP
    INSERT INTO pt_plain SELECT i % 7, i FROM generate_series(1, 1 + i % 5);
    COMMIT;
  END LOOP;
END $$;
CALL feed(300);
SELECT weir.wait_for();
CREATE TABLE pt_before AS SELECT 't' AS v, window_start, window_end, n FROM pt_t UNION ALL SELECT 'h', * FROM pt_h UNION ALL SELECT 'c', * FROM pt_c
  UNION ALL SELECT 's' || k, window_start, window_end, n FROM pt_s;
SELECT count(*) > 5 AS many, sum(n) FILTER (WHERE v = 't') = (SELECT count(*) FROM pt_plain) AS all FROM pt_before;
SELECT until('NOT EXISTS (SELECT FROM pt_s WHERE NOT weir.is_final(''pt_s'', window_end))');
REFRESH MATERIALIZED VIEW pt_s;
REFRESH MATERIALIZED VIEW pt_t;
REFRESH MATERIALIZED VIEW pt_h;
REFRESH MATERIALIZED VIEW pt_c;
CREATE MATERIALIZED VIEW pt_new USING continuous AS
  SELECT window_start, window_end, count(*) AS n FROM pt_plain, hop(transaction_timestamp(), '20 milliseconds', '40 milliseconds') GROUP BY window_start, window_end;
SELECT weir.wait_for();
CREATE VIEW pt_after AS SELECT 't' AS v, window_start, window_end, n FROM pt_t UNION ALL SELECT 'h', * FROM pt_h UNION ALL SELECT 'c', * FROM pt_c
  UNION ALL SELECT 's' || k, window_start, window_end, n FROM pt_s;
SELECT count(*) FROM ((TABLE pt_before EXCEPT ALL TABLE pt_after) UNION ALL (TABLE pt_after EXCEPT ALL TABLE pt_before)) d;
SELECT count(*) FROM ((TABLE pt_new EXCEPT ALL TABLE pt_h) UNION ALL (TABLE pt_h EXCEPT ALL TABLE pt_new)) d;
SELECT bool_and(late = 0 AND late_partial = 0) AS none_late, count(DISTINCT watermark) AS watermarks FROM weir.views WHERE view::text IN ('pt_t', 'pt_h', 'pt_c', 'pt_f', 'pt_new');

-- resumed, it finds in the log what belongs where
SELECT weir.pause('pt_f');
SELECT until('(SELECT state FROM weir.views WHERE view = ''pt_f''::regclass) = ''paused''');
CALL feed(10);
SELECT until('NOT EXISTS (SELECT FROM pt_t WHERE NOT weir.is_final(''pt_t'', window_end))');
SELECT weir.resume('pt_f');
SELECT weir.wait_for();
SELECT until('(SELECT sum(s) FROM pt_f) = (SELECT sum(v) FROM pt_plain)');

-- heartbeats are of event time; the end of the stream is of all time
CREATE MATERIALIZED VIEW pt_e USING continuous AS SELECT window_end, count(*) AS n FROM pt, tumble(now(), '100000 days') GROUP BY 1;
SELECT weir.advance_watermark('pt', now()) IS NOT NULL;
SELECT weir.wait_for();
SELECT n, weir.is_final('pt_e', window_end) FROM pt_e;
BEGIN;
INSERT INTO pt VALUES (1, 1, now(), now());
PREPARE TRANSACTION 'weir_pt';
SELECT weir.advance_watermark('pt', 'infinity');
COMMIT PREPARED 'weir_pt';
SELECT weir.wait_for();
SELECT n, weir.is_final('pt_e', window_end), weir.watermark('pt_e') FROM pt_e;
SELECT late FROM weir.views WHERE view = 'pt_e'::regclass;
SELECT line FROM weir.explain('pt_e') line WHERE line ~ '^(Watermark|Held)';

-- date_trunc() and date_bin() of the event time are ordinary keys beside a window function
SET client_min_messages = notice;
CREATE TABLE pt_key (k int, ts timestamptz NOT NULL) USING stream WITH (event_time = ts, watermark_delay = '0');
CREATE MATERIALIZED VIEW pt_k1 USING continuous AS
  SELECT window_end, date_trunc('hour', ts) AS h, date_bin('90 s', ts, '2020-01-01Z') AS b, count(*) AS n FROM pt_key, tumble(ts, '1 minute') GROUP BY 1, 2, 3;
CREATE MATERIALIZED VIEW pt_k2 USING continuous AS
  SELECT date_trunc('hour', ts) AS h, date_bin('90 s', ts, '2020-01-01Z') AS b, count(*) AS n FROM pt_key, tumble(now(), '100000 days') GROUP BY window_end, 1, 2;
SET client_min_messages = warning;
SELECT v, line FROM unnest('{pt_k1,pt_k2}'::regclass[]) v, weir.explain(v) line WHERE line ~ '^Window';
INSERT INTO pt_key SELECT i, timestamptz '2020-01-01Z' + i * interval '45 s' FROM generate_series(0, 9) i;
-- late for its minute, though neither its hour nor its 90 seconds are over: W is 00:06:45
INSERT INTO pt_key VALUES (10, '2020-01-01 00:05:50Z'), (11, '2020-01-01 00:06:50Z'), (12, '2019-12-31 00:00Z');
SELECT weir.wait_for();
SELECT weir.checkpoint();
SELECT view, late FROM weir.views WHERE view::text ~ '^pt_k' ORDER BY view::text;
TABLE pt_k1 ORDER BY 1, 2, 3;
SELECT window_end, date_trunc('hour', ts) AS h, date_bin('90 s', ts, '2020-01-01Z') AS b, count(*) AS n FROM pt_key, tumble(ts, '1 minute') GROUP BY 1, 2, 3 EXCEPT ALL TABLE pt_k1;
SELECT count(*) FROM (SELECT date_trunc('hour', ts), date_bin('90 s', ts, '2020-01-01Z'), count(*) FROM pt_key GROUP BY 1, 2 EXCEPT ALL TABLE pt_k2) d;
SELECT count(*) FROM pt_k2;
-- they go with their window, not before
SELECT weir.advance_watermark('pt_key', '2020-01-01 02:00Z');
SELECT weir.wait_for();
SELECT weir.checkpoint();
SELECT view, groups, final_rows FROM weir.views WHERE view::text ~ '^pt_k' ORDER BY view::text;
SELECT weir.advance_watermark('pt_key', 'infinity');
SELECT weir.wait_for();
SELECT weir.checkpoint();
SELECT view, groups, final_rows FROM weir.views WHERE view::text ~ '^pt_k' ORDER BY view::text;
SELECT count(*) FROM (SELECT date_trunc('hour', ts), date_bin('90 s', ts, '2020-01-01Z'), count(*) FROM pt_key GROUP BY 1, 2 EXCEPT ALL TABLE pt_k2) d;
DROP TABLE pt_key CASCADE;

-- prepared in one window and committed in another: it arrives in the one of the commit
CREATE TABLE pt_prep (k int) USING stream;
CREATE MATERIALIZED VIEW pt_p USING continuous AS
  SELECT window_start, window_end, min(k) AS low, max(k) AS high, count(*) AS n FROM pt_prep, tumble(now(), '200 milliseconds') GROUP BY window_start, window_end;
BEGIN;
INSERT INTO pt_prep VALUES (1);
PREPARE TRANSACTION 'weir_pt_prep';
INSERT INTO pt_prep VALUES (2);
SELECT weir.wait_for('pt_p');
SELECT until('(SELECT weir.is_final(''pt_p'', window_end) FROM pt_p)');
SELECT clock_timestamp() AS before \gset
COMMIT PREPARED 'weir_pt_prep';
SELECT clock_timestamp() AS after \gset
SELECT weir.wait_for('pt_p');
SELECT low, high, n, window_end > :'before' AS after_before, window_start <= :'after' AS by_then FROM pt_p ORDER BY window_start;
SELECT late FROM weir.views WHERE view = 'pt_p'::regclass;
REFRESH MATERIALIZED VIEW pt_p;
SELECT weir.wait_for('pt_p');
SELECT low, high, n, window_end > :'before' AS after_before, window_start <= :'after' AS by_then FROM pt_p ORDER BY window_start;
DROP TABLE pt_prep CASCADE;

DROP TABLE pt, pt_plain, pt_clock CASCADE;
DROP TABLE pt_heap, pt_before;
DROP FUNCTION until, refused;
DROP PROCEDURE feed;
