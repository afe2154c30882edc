-- hop() and cumulate(): windows that overlap.  The same text run over a table
-- that keeps the log's order gives the same rows, less what came late.
SET timezone = 'UTC';
SET datestyle = 'ISO';
SET client_min_messages = warning;
CREATE SCHEMA hop;
SET search_path = hop, public;

-- the functions
SELECT * FROM hop('2026-01-01 12:00:07+00'::timestamptz, '5 s', '10 s');
SELECT * FROM hop('2026-01-01 12:00:10'::timestamp, '5 s', '10 s', '2026-01-01 00:00:01');
SELECT * FROM hop('2026-01-01 12:00:07+00'::timestamptz, size => '1 min', slide => '1 min');
SELECT * FROM cumulate('2026-01-01 12:00:07+00'::timestamptz, '5 s', '20 s');
SELECT * FROM cumulate('2026-01-01 11:59:59.999999'::timestamp, '5 s', '20 s', '2026-01-01 00:00:01');
SELECT * FROM hop('-infinity'::timestamptz, '5 s', '10 s');
SELECT * FROM cumulate('infinity'::timestamp, '5 s', '10 s');
SELECT * FROM hop(now(), '5 s', '12 s');
SELECT * FROM hop(now(), '10 s', '5 s');
SELECT * FROM cumulate(now(), '10 s', '5 s');
SELECT * FROM hop(now(), '0', '5 s');
SELECT * FROM hop(now(), '1 month', '1 year');
SELECT * FROM hop(now(), '1 us', '1 hour');
SELECT * FROM hop(date '2026-01-01', '1 day', '2 days');
SELECT * FROM cumulate(date '2026-01-01', '1 day', '2 days');
SELECT * FROM hop('4713-01-01 BC'::timestamp, '1 day', '500 days');
SELECT * FROM hop('294276-12-31 12:00'::timestamp, '1 day', '500 days');
SELECT count(*), count(window_end) FROM hop(NULL::timestamptz, '5 s', '10 s');

CREATE TABLE s (id int, k int, v int, x numeric, ts timestamptz NOT NULL)
  USING stream WITH (event_time = ts, watermark_delay = '20 seconds');
CREATE TABLE log (LIKE s, seq bigint GENERATED ALWAYS AS IDENTITY) USING heap;

-- n events around second "at", up to "back" seconds behind it
CREATE FUNCTION feed(at int, n int, back int DEFAULT 19) RETURNS void LANGUAGE sql AS $$
  WITH rows AS (
    INSERT INTO log (id, k, v, x, ts)
    SELECT at * 1000 + i, nullif(h % 7, 6), h % 100 - 30, (h % 1000) / 7.0,
      timestamptz '2026-01-01 12:00Z' + (at - h % (back * 10) / 10.0) * interval '1 s'
    FROM (SELECT i, (at * 1000 + i) * 7919 % 1000003 AS h FROM generate_series(1, n) i) q
    RETURNING id, k, v, x, ts)
  INSERT INTO s SELECT * FROM rows
$$;

CREATE MATERIALIZED VIEW h_flat USING continuous AS
  SELECT window_start, window_end, k, count(*) AS n, count(v) AS c, sum(v) AS s, min(v) AS lo, max(v) AS hi, avg(v) AS a, bool_or(v > 60) AS b
  FROM s, hop(ts, '5 s', '20 s') GROUP BY window_start, window_end, k;
CREATE MATERIALIZED VIEW h_serial USING continuous AS
  SELECT window_end, k, sum(x) AS s, avg(x) AS a, round(stddev(x), 6) AS d, variance(v) AS vv, bit_xor(v) AS bx, regr_count(v, id) AS rc
  FROM s, hop(ts, '3 s', '9 s', '2026-01-01 00:00:01+00') GROUP BY window_end, k;
CREATE MATERIALIZED VIEW h_rows USING continuous AS
  SELECT window_start, k, array_agg(id) AS ids, string_agg(v::text, ',' ORDER BY v DESC) AS vs, count(DISTINCT v) AS dv,
    percentile_cont(0.5) WITHIN GROUP (ORDER BY v) AS med, mode() WITHIN GROUP (ORDER BY v % 3) AS mo,
    weir.first(id, ts) AS f, weir.last(id, ts) AS l, jsonb_agg(DISTINCT v % 4) AS j
  FROM s, hop(ts, '10 s', '20 s') GROUP BY window_start, k;
CREATE MATERIALIZED VIEW h_none USING continuous AS
  SELECT window_start, count(*) AS n, sum(v) FILTER (WHERE v > 0) AS s FROM s, hop(ts, '1 s', '1 min') GROUP BY window_start;
CREATE MATERIALIZED VIEW h_where USING continuous AS
  SELECT window_start AS ws, k + 1 AS k1, sum(v) AS s FROM s, hop(ts, '5 s', '10 s') w
  WHERE v > 0 AND window_end > '2026-01-01 12:00:30+00' AND (extract(second FROM window_start)::int % 10 = 0 OR window_end < '2026-01-01 12:01+00')
  GROUP BY window_start, k HAVING count(*) > 1 AND extract(minute FROM window_start) < 5;
CREATE MATERIALIZED VIEW h_late USING continuous WITH (allowed_lateness = '1 minute') AS
  SELECT window_start, k, count(*) AS n FROM s, hop(ts, '5 s', '20 s') GROUP BY window_start, k;
CREATE MATERIALIZED VIEW h_final USING continuous WITH (emit = final) AS
  SELECT window_end, count(*) AS n FROM s, hop(ts, '5 s', '20 s') GROUP BY window_end;
CREATE MATERIALIZED VIEW c_flat USING continuous AS
  SELECT window_start, window_end, k, count(*) AS n, sum(v) AS s, sum(x) AS sx FROM s, cumulate(ts, '5 s', '30 s') GROUP BY window_start, window_end, k;
CREATE MATERIALIZED VIEW c_rows USING continuous AS
  SELECT window_end, array_agg(id) AS ids, count(DISTINCT k) AS dk FROM s, cumulate(ts, '10 s', '1 min', '2026-01-01 00:00:05+00') GROUP BY window_end;
CREATE VIEW plain AS SELECT k, v, ts FROM s WHERE v % 2 = 0;
CREATE MATERIALIZED VIEW h_view USING continuous AS
  SELECT w.window_start, p.k, sum(p.v) AS s FROM plain p CROSS JOIN LATERAL hop(p.ts, slide => '5 s', size => '10 s') w GROUP BY w.window_start, p.k;
CREATE INDEX ON h_flat (k, window_start);

-- rows in which a view and its query, run over the log in its order, differ
CREATE FUNCTION differences(like_name text DEFAULT '%', also text DEFAULT '') RETURNS TABLE (view text, missing bigint, surplus bigint) LANGUAGE plpgsql AS $$
DECLARE v record; q text; cols text;
BEGIN
  FOR v IN SELECT c.oid, c.relname FROM pg_class c WHERE c.relnamespace = 'hop'::regnamespace AND c.relkind = 'm' AND c.relname LIKE like_name AND c.relname <> 'h_final' ORDER BY 2 LOOP
    q := regexp_replace(rtrim(pg_get_viewdef(v.oid), ';'), '\mFROM \(*s\M', 'FROM (SELECT * FROM log ' || also || ' ORDER BY seq OFFSET 0) s');
    q := replace(q, 'plain p', '(SELECT k, v, ts FROM log WHERE v % 2 = 0) p');
    q := replace(replace(q, '(plain p', '((SELECT k, v, ts FROM log WHERE v % 2 = 0) p'), 'array_agg(s.id)', 'array_agg(s.id ORDER BY s.seq)');
    q := replace(replace(q, 'weir.first(s.id, s.ts)', '(array_agg(s.id ORDER BY s.ts, s.seq))[1]'), 'weir.last(s.id, s.ts)', '(array_agg(s.id ORDER BY s.ts DESC, s.seq DESC))[1]');
    view := v.relname;
    EXECUTE format('SELECT count(*) FROM (%s EXCEPT ALL TABLE %s) x', q, v.oid::regclass) INTO missing;
    EXECUTE format('SELECT count(*) FROM (TABLE %s EXCEPT ALL %s) x', v.oid::regclass, q) INTO surplus;
    RETURN NEXT;
  END LOOP;
END $$;

SELECT weir.wait_for();
SELECT * FROM differences();
SELECT feed(20, 100);
SELECT weir.wait_for();
SELECT * FROM differences();
DO $$ BEGIN FOR i IN 3..6 LOOP PERFORM feed(i * 10, 150); END LOOP; END $$;
SELECT weir.wait_for();
SELECT * FROM differences();
SELECT weir.checkpoint();
SELECT * FROM differences();
SELECT feed(90, 200);
SELECT feed(100, 200);
SELECT feed(101, 50);
SELECT weir.wait_for();
SELECT * FROM differences();
SELECT weir.checkpoint();
SELECT * FROM differences();
SELECT view, late, late_partial FROM weir.views ORDER BY view::text;

-- keys are looked up, final or live; several scans of a view; prepared
EXPLAIN (COSTS OFF) SELECT * FROM h_flat WHERE k = 3;
SELECT count(*) > 0 AS some, sum(n) = (SELECT sum(n) FROM h_flat WHERE k::text = '3') AS same FROM h_flat WHERE k = 3;
SELECT count(*) > 0 AS some, count(*) = (SELECT count(*) FROM h_flat WHERE k IS NULL) AS same FROM h_flat a JOIN h_flat b USING (window_start, window_end) WHERE a.k IS NULL AND b.k IS NULL;
PREPARE p(int, timestamptz) AS SELECT n, s FROM h_flat WHERE k = $1 AND window_start = $2;
EXECUTE p(3, '2026-01-01 12:01:30+00');
EXECUTE p(3, '2026-01-01 12:00:30+00');
SELECT bool_and(weir.is_final('h_final', window_end)), count(*) FROM h_final;
SELECT window_end, n FROM h_final EXCEPT ALL SELECT window_end, sum(n) FROM h_flat GROUP BY 1;

-- late for some windows, for all
SELECT weir.watermark('s');
INSERT INTO s VALUES (-1, 1, 1, 1, '2026-01-01 12:01:22.5+00');
SELECT weir.wait_for();
SELECT view, late, late_partial FROM weir.views ORDER BY view::text;
INSERT INTO s VALUES (-2, 1, 1, 1, '2026-01-01 12:01:12.5+00'), (-3, 1, 1, 1, '2026-01-01 12:00:00+00');
SELECT weir.wait_for();
SELECT view, late, late_partial FROM weir.views ORDER BY view::text;
-- counted where they still may be
WITH late(id, ts) AS (VALUES (-1, timestamptz '2026-01-01 12:01:22.5+00'), (-2, '2026-01-01 12:01:12.5+00'), (-3, '2026-01-01 12:00:00+00'))
SELECT window_start, sum(n) FROM (
  SELECT window_start, n FROM h_flat WHERE k = 1
  UNION ALL SELECT window_start, -1 FROM log, hop(ts, '5 s', '20 s') WHERE k = 1) d GROUP BY 1 HAVING sum(n) <> 0 ORDER BY 1;
SELECT weir.checkpoint();
WITH late(id, ts) AS (VALUES (-1, timestamptz '2026-01-01 12:01:22.5+00'), (-2, '2026-01-01 12:01:12.5+00'), (-3, '2026-01-01 12:00:00+00'))
SELECT window_start, sum(n) FROM (
  SELECT window_start, n FROM h_flat WHERE k = 1
  UNION ALL SELECT window_start, -1 FROM log, hop(ts, '5 s', '20 s') WHERE k = 1) d GROUP BY 1 HAVING sum(n) <> 0 ORDER BY 1;

-- rebuilt, it judges alike
CREATE TABLE before AS TABLE h_flat;
CREATE TABLE before_rows AS TABLE h_rows;
REFRESH MATERIALIZED VIEW h_flat;
REFRESH MATERIALIZED VIEW h_rows;
SELECT weir.wait_for('h_flat');
SELECT weir.wait_for('h_rows');
SELECT count(*) FROM (TABLE h_flat EXCEPT ALL TABLE before) x;
SELECT count(*) FROM (TABLE before EXCEPT ALL TABLE h_flat) x;
SELECT count(*) FROM (TABLE h_rows EXCEPT ALL TABLE before_rows) x;
SELECT count(*) FROM (TABLE before_rows EXCEPT ALL TABLE h_rows) x;
SELECT late, late_partial FROM weir.views WHERE view = 'h_flat'::regclass;
-- read while paused: from the checkpoint
SELECT weir.pause('h_flat');
SELECT count(*) FROM (TABLE before EXCEPT ALL TABLE h_flat) x;
SELECT weir.resume('h_flat');

-- the end of it: all windows become final
SELECT weir.advance_watermark('s', '2026-01-01 12:30+00');
SELECT weir.wait_for();
SELECT weir.checkpoint();
SELECT groups FROM weir.views WHERE view = 'h_none'::regclass;
SELECT count(*) FROM (TABLE h_flat EXCEPT ALL TABLE before) x;
SELECT count(*) FROM (TABLE before EXCEPT ALL TABLE h_flat) x;

-- what WHERE says of windows is said before a row is late for them
CREATE TABLE w (id int, ts timestamptz NOT NULL) USING stream WITH (event_time = ts, watermark_delay = '0');
CREATE MATERIALIZED VIEW w_hop USING continuous WITH (late_table = w_hop_late) AS
  SELECT array_agg(id) AS ids, count(*) AS n FROM w, hop(ts, '5 s', '20 s')
  WHERE window_end >= '2026-01-01 12:01:00Z' AND window_end NOT IN ('2026-01-01 12:01:10Z', '2026-01-01 12:01:25Z', '2026-01-01 12:01:30Z')
  GROUP BY window_start;
CREATE MATERIALIZED VIEW w_cum USING continuous WITH (late_table = w_cum_late) AS
  SELECT window_end, array_agg(id) AS ids FROM w, cumulate(ts, '10 s', '30 s')
  WHERE id > 0 AND extract(second FROM window_end) <> 30 GROUP BY window_end;
INSERT INTO w VALUES (1, '2026-01-01 12:01:20Z');
INSERT INTO w VALUES
  (2, '2026-01-01 12:00:30Z'),  -- hop: none of its windows is there
  (3, '2026-01-01 12:00:50Z'),  -- late: those to 12:01:00 and 12:01:05 are
  (4, '2026-01-01 12:01:02Z'),  -- late, the last one is that to 12:01:20
  (5, '2026-01-01 12:01:12Z'),  -- late, those that are open are not there
  (6, '2026-01-01 12:01:17Z'),  -- late for that to 12:01:20
  (7, '2026-01-01 12:01:21Z'),
  (-8, '2026-01-01 12:01:05Z'),
  (9, '2026-01-01 12:01:31Z');
SELECT weir.wait_for();
SELECT view, late, late_partial, groups FROM weir.views WHERE view::text LIKE 'w\_%' ORDER BY view::text;
SELECT weir.checkpoint();
SELECT id, window_end FROM w_hop_late ORDER BY id;
SELECT id, window_end FROM w_cum_late ORDER BY id;
TABLE w_hop ORDER BY ids;
TABLE w_cum ORDER BY window_end;
REFRESH MATERIALIZED VIEW w_hop;
REFRESH MATERIALIZED VIEW w_cum;
SELECT weir.wait_for();
SELECT view, late, late_partial, groups FROM weir.views WHERE view::text LIKE 'w\_%' ORDER BY view::text;
TABLE w_hop ORDER BY ids;
TABLE w_cum ORDER BY window_end;

-- an hour by the minute costs no more state than minutes
CREATE TABLE t (k int, ts timestamp NOT NULL) USING stream WITH (event_time = ts, watermark_delay = '2 hours');
CREATE MATERIALIZED VIEW t_min USING continuous AS SELECT window_start, k, count(*) AS n FROM t, tumble(ts, '1 min') GROUP BY window_start, k;
CREATE MATERIALIZED VIEW t_hour USING continuous AS SELECT window_start, k, count(*) AS n FROM t, hop(ts, '1 min', '1 hour') GROUP BY window_start, k;
INSERT INTO t SELECT i % 50, timestamp '2026-01-01' + i * interval '0.3 s' FROM generate_series(1, 12000) i;
SELECT weir.wait_for();
SELECT a.groups = b.groups AS groups, b.state_bytes < 1.1 * a.state_bytes AS bytes FROM weir.views a, weir.views b WHERE a.view = 't_min'::regclass AND b.view = 't_hour'::regclass;
SELECT count(*), sum(n) FROM t_hour;
SELECT count(*) FROM (SELECT window_start, k, count(*) FROM t, hop(ts, '1 min', '1 hour') GROUP BY window_start, k EXCEPT ALL TABLE t_hour) x;

-- refused
CREATE MATERIALIZED VIEW bad USING continuous AS SELECT window_start, count(*) FROM s, hop(ts, '5 s', '12 s') GROUP BY window_start;
CREATE MATERIALIZED VIEW bad USING continuous AS SELECT window_start, count(*) FROM s, hop(ts, '5 s', '10 s') WHERE window_end > ts + interval '6 s' GROUP BY window_start;
CREATE MATERIALIZED VIEW bad USING continuous AS SELECT window_start, count(*) FROM (SELECT * FROM s, hop(ts, '5 s', '10 s')) q WHERE window_end > now() GROUP BY window_start;
CREATE MATERIALIZED VIEW bad USING continuous AS SELECT window_start, count(*) FROM (SELECT * FROM s, hop(ts, '5 s', '10 s')) q WHERE window_end > '2026-01-01' GROUP BY window_start;
CREATE MATERIALIZED VIEW bad USING continuous AS SELECT window_start, max(window_end - ts) FROM s, hop(ts, '5 s', '10 s') GROUP BY window_start;
CREATE MATERIALIZED VIEW bad USING continuous AS SELECT window_start, count(*) FILTER (WHERE window_start < ts) FROM s, hop(ts, '5 s', '10 s') GROUP BY window_start;
CREATE MATERIALIZED VIEW bad USING continuous AS SELECT window_start, window_end - ts, count(*) FROM s, hop(ts, '5 s', '10 s') GROUP BY 1, 2;
CREATE MATERIALIZED VIEW bad USING continuous AS SELECT date_trunc('day', window_start), count(*) FROM s, hop(ts, '5 s', '10 s') GROUP BY 1;
CREATE MATERIALIZED VIEW bad USING continuous AS SELECT k, count(*) FROM s, hop(ts, '5 s', '10 s') GROUP BY k;
CREATE MATERIALIZED VIEW bad USING continuous AS SELECT window_start, count(*) FROM s, cumulate(ts, '5 s', '10 s') GROUP BY window_start;
CREATE MATERIALIZED VIEW bad USING continuous AS SELECT a.window_start, count(*) FROM s, hop(ts, '5 s', '10 s') a, tumble(ts, '5 s') b GROUP BY a.window_start;
CREATE MATERIALIZED VIEW bad USING continuous AS SELECT window_start, count(*) FROM s, hop(ts + interval '1 s', '5 s', '10 s') GROUP BY window_start;
CREATE MATERIALIZED VIEW bad USING continuous AS SELECT window_start, count(*) FROM s, hop(ts, v * interval '1 s', '10 s') GROUP BY window_start;
CREATE MATERIALIZED VIEW bad USING continuous AS SELECT window_start, count(*) FROM s, hop(ts, NULL, '10 s') GROUP BY window_start;
CREATE MATERIALIZED VIEW bad USING continuous AS SELECT window_start, max(window_start) FROM s, hop(ts, '5 s', '10 s') GROUP BY window_start;
CREATE MATERIALIZED VIEW bad USING continuous AS SELECT window_start, count(*) FILTER (WHERE window_end = '2026-01-01') FROM s, hop(ts, '5 s', '10 s') GROUP BY window_start, window_end = '2026-01-01';
DROP SCHEMA hop CASCADE;
