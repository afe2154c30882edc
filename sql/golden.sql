-- The golden timeline: seven transactions, every kind of window, and after each
-- transaction what every view shows, as can be worked out by hand from the rules
-- (test/tap/012_timelines.pl has the reasons beside the numbers).  Times are
-- seconds after 12:00; a row reads: key [start,end) count/sum {values in log
-- order}, and * once it is final.
SET timezone = 'UTC';
SET datestyle = 'ISO';
SET client_min_messages = warning;
CREATE TABLE g (ts timestamptz NOT NULL, k text, v int)
  USING stream WITH (event_time = ts, watermark_delay = '5 seconds');
CREATE FUNCTION put(VARIADIC text[]) RETURNS void LANGUAGE sql AS $$
  INSERT INTO g SELECT timestamptz '2026-01-01 12:00+00' + split_part(e, ',', 1)::int * interval '1 s', split_part(e, ',', 2), split_part(e, ',', 3)::int
  FROM unnest($1) WITH ORDINALITY u(e, o) ORDER BY o $$;
CREATE FUNCTION sec(timestamptz) RETURNS int LANGUAGE sql IMMUTABLE AS $$ SELECT extract(epoch FROM $1 - '2026-01-01 12:00+00')::int $$;

CREATE MATERIALIZED VIEW g_none USING continuous AS
  SELECT k, count(*) AS n, sum(v) AS s, array_agg(v) AS a FROM g GROUP BY k;
CREATE MATERIALIZED VIEW g_tumble USING continuous AS
  SELECT k, window_start, window_end, count(*) AS n, sum(v) AS s, array_agg(v) AS a FROM g, tumble(ts, '10 seconds') GROUP BY k, window_start, window_end;
CREATE MATERIALIZED VIEW g_tumble_5 USING continuous WITH (allowed_lateness = '5 seconds') AS
  SELECT k, window_start, window_end, count(*) AS n, sum(v) AS s, array_agg(v) AS a FROM g, tumble(ts, '10 seconds') GROUP BY k, window_start, window_end;
CREATE MATERIALIZED VIEW g_date_bin USING continuous AS
  SELECT k, date_bin('10 seconds', ts, '2000-01-01') AS window_start, count(*) AS n, sum(v) AS s, array_agg(v) AS a FROM g GROUP BY k, date_bin('10 seconds', ts, '2000-01-01');
CREATE MATERIALIZED VIEW g_date_trunc USING continuous AS
  SELECT k, date_trunc('minute', ts) AS window_start, count(*) AS n, sum(v) AS s, array_agg(v) AS a FROM g GROUP BY k, date_trunc('minute', ts);
CREATE MATERIALIZED VIEW g_hop USING continuous AS
  SELECT k, window_start, window_end, count(*) AS n, sum(v) AS s, array_agg(v) AS a FROM g, hop(ts, '5 seconds', '10 seconds') GROUP BY k, window_start, window_end;
CREATE MATERIALIZED VIEW g_hop_5 USING continuous WITH (allowed_lateness = '5 seconds') AS
  SELECT k, window_start, window_end, count(*) AS n, sum(v) AS s, array_agg(v) AS a FROM g, hop(ts, '5 seconds', '10 seconds') GROUP BY k, window_start, window_end;
CREATE MATERIALIZED VIEW g_cumulate USING continuous AS
  SELECT k, window_start, window_end, count(*) AS n, sum(v) AS s, array_agg(v) AS a FROM g, cumulate(ts, '5 seconds', '10 seconds') GROUP BY k, window_start, window_end;
CREATE MATERIALIZED VIEW g_cumulate_5 USING continuous WITH (allowed_lateness = '5 seconds') AS
  SELECT k, window_start, window_end, count(*) AS n, sum(v) AS s, array_agg(v) AS a FROM g, cumulate(ts, '5 seconds', '10 seconds') GROUP BY k, window_start, window_end;
CREATE MATERIALIZED VIEW g_session USING continuous AS
  SELECT k, window_start, window_end, count(*) AS n, sum(v) AS s, array_agg(v) AS a FROM g, session(ts, '5 seconds') GROUP BY k, window_start, window_end;
CREATE MATERIALIZED VIEW g_session_5 USING continuous WITH (allowed_lateness = '5 seconds') AS
  SELECT k, window_start, window_end, count(*) AS n, sum(v) AS s, array_agg(v) AS a FROM g, session(ts, '5 seconds') GROUP BY k, window_start, window_end;
CREATE MATERIALIZED VIEW g_count USING continuous AS
  SELECT k, window_start, window_end, count(*) AS n, sum(v) AS s, array_agg(v) AS a FROM g, count_window(2) GROUP BY k, window_start, window_end;
CREATE MATERIALIZED VIEW g_count_slide USING continuous AS
  SELECT k, window_start, window_end, count(*) AS n, sum(v) AS s, array_agg(v) AS a FROM g, count_window(3, 2) GROUP BY k, window_start, window_end;

-- one line for each view
CREATE FUNCTION shown() RETURNS TABLE (view name, watermark int, late bigint, late_partial bigint, rows text) LANGUAGE plpgsql AS $$
DECLARE
  has_start bool; has_end bool; is_time bool;
BEGIN
  FOR view, watermark, late, late_partial IN SELECT c.relname, sec(w.watermark), w.late, w.late_partial
    FROM weir.views w JOIN pg_class c ON c.oid = w.view WHERE c.relname LIKE 'g\_%' ORDER BY c.oid
  LOOP
    SELECT bool_or(attname = 'window_start'), bool_or(attname = 'window_end'), coalesce(bool_or(atttypid = 'timestamptz'::regtype), false)
    INTO has_start, has_end, is_time FROM pg_attribute WHERE attrelid = view::text::regclass AND attnum > 0;
    EXECUTE format($f$
      SELECT string_agg(k || coalesce(' [' || b || ',' || coalesce(e::text, '') || ')', '') || ' ' || n || '/' || s || ' ' || a::text || CASE WHEN f THEN ' *' ELSE '' END, E'\n'
                        ORDER BY k, b, e) FROM (SELECT *, %s::int AS b, %s::int AS e, %s AS f FROM %I) x $f$,
      CASE WHEN has_start THEN CASE WHEN is_time THEN 'sec(window_start)' ELSE 'window_start' END ELSE 'NULL' END,
      CASE WHEN has_end THEN CASE WHEN is_time THEN 'sec(window_end)' ELSE 'window_end' END ELSE 'NULL' END,
      CASE WHEN has_end THEN CASE WHEN is_time THEN format('weir.is_final(%L, window_end)', view) ELSE 'window_end IS NOT NULL' END ELSE 'false' END,
      view) INTO rows;
    RETURN NEXT;
  END LOOP;
END $$;
\pset footer off

-- T1
SELECT put('1,a,1', '4,b,2', '9,a,3');
SELECT weir.wait_for();
SELECT * FROM shown();
-- T2: a row that is out of order by less than the delay is like any other
SELECT put('12,b,4', '7,a,5', '3,b,6');
SELECT weir.wait_for();
SELECT * FROM shown();
-- T3: the first window of ten seconds is complete
SELECT put('16,a,7');
SELECT weir.wait_for();
SELECT * FROM shown();
-- T4: late for [0,10), but for those with lateness
SELECT put('8,a,100');
SELECT weir.wait_for();
SELECT * FROM shown();
-- T5
SELECT put('27,b,8');
SELECT weir.wait_for();
SELECT * FROM shown();
-- T6: late for [10,20), but for those with lateness
SELECT put('14,a,200');
SELECT weir.wait_for();
SELECT * FROM shown();
-- T7: late for all tumbling windows
SELECT put('8,b,300');
SELECT weir.wait_for();
SELECT * FROM shown();

-- a checkpoint, which moves final rows to the heap, changes nothing; a view that
-- comes later, from the log, sees the same rows late
CREATE MATERIALIZED VIEW g_final USING continuous WITH (emit = final) AS
  SELECT k, window_start, window_end, count(*) AS n, sum(v) AS s, array_agg(v) AS a FROM g, tumble(ts, '10 seconds') GROUP BY k, window_start, window_end;
SELECT weir.wait_for();
SELECT weir.checkpoint();
SELECT * FROM shown();
-- neither does a rebuild from the log: it judges as it was judged
DO $$ DECLARE v name; BEGIN FOR v IN SELECT relname FROM pg_class WHERE relname LIKE 'g\_%' AND relkind = 'm' LOOP EXECUTE format('REFRESH MATERIALIZED VIEW %I', v); END LOOP; END $$;
SELECT weir.wait_for();
SELECT * FROM shown();
-- the end of all time: what has a time window is final
SELECT weir.advance_watermark('g', '2026-01-01 13:00+00');
SELECT weir.wait_for();
SELECT weir.checkpoint();
SELECT * FROM shown();

DROP TABLE g CASCADE;
DROP FUNCTION put, sec, shown;
