-- session() and count_window(): windows that depend on other rows.  The same
-- text run over the log gives the same rows, less what came late.
SET timezone = 'UTC';
SET datestyle = 'ISO';
SET client_min_messages = warning;
CREATE SCHEMA spans;
SET search_path = spans, public;
CREATE TABLE s (id int, k int, g text, v int, x numeric, ts timestamptz NOT NULL)
  USING stream WITH (event_time = ts, watermark_delay = '20 seconds');
CREATE TABLE log (LIKE s, seq bigint GENERATED ALWAYS AS IDENTITY) USING heap;

-- n events of about a dozen keys around second "at", up to 19 s behind it
CREATE FUNCTION feed(at int, n int) RETURNS void LANGUAGE sql AS $$
  WITH rows AS (
    INSERT INTO log (id, k, g, v, x, ts)
    SELECT at * 1000 + i, nullif(h % 13, 12), 'g' || h % 3, h % 100 - 30, (h % 1000) / 7.0,
      timestamptz '2026-01-01 12:00Z' + (at - h % 190 / 10.0) * interval '1 s'
    FROM (SELECT i, (at * 1000 + i) * 7919 % 1000003 AS h FROM generate_series(1, n) i) q
    RETURNING id, k, g, v, x, ts)
  INSERT INTO s SELECT * FROM rows
$$;
CREATE MATERIALIZED VIEW s_flat USING continuous AS
  SELECT k, window_start, window_end, count(*) AS n, count(v) AS c, sum(v) AS s, min(v) AS lo, max(v) AS hi, avg(v) AS a FROM s, session(ts, '2 s') GROUP BY k, window_start, window_end;
CREATE MATERIALIZED VIEW s_rows USING continuous AS
  SELECT window_end, k, g, array_agg(id) AS ids, string_agg(v::text, ',' ORDER BY v DESC) AS vs, count(DISTINCT v) AS dv, sum(x) AS sx,
    percentile_cont(0.5) WITHIN GROUP (ORDER BY v) AS med FROM s, session(ts, '4 s') GROUP BY g, window_end, k;
CREATE MATERIALIZED VIEW s_all USING continuous AS
  SELECT window_start, window_end - window_start AS length, count(*) AS n FROM s, session(ts, '0.15 s') WHERE v > 0 GROUP BY window_start, window_end HAVING count(*) > 1;
CREATE MATERIALIZED VIEW s_late USING continuous WITH (allowed_lateness = '1 hour') AS
  SELECT window_start, k, count(*) AS n FROM s, session(ts, '2 s') GROUP BY window_start, k;
CREATE MATERIALIZED VIEW s_final USING continuous WITH (emit = final) AS
  SELECT window_start, window_end, k, count(*) AS n FROM s, session(ts, '2 s') GROUP BY window_start, window_end, k;
CREATE MATERIALIZED VIEW c_2 USING continuous AS
  SELECT k, window_start, window_end, count(*) AS n, sum(v) AS s, array_agg(id) AS ids FROM s, count_window(2) GROUP BY k, window_start, window_end;
CREATE MATERIALIZED VIEW c_slide USING continuous AS
  SELECT k, window_start, window_end, count(*) AS n, sum(x) AS sx, array_agg(id) AS ids FROM s, count_window(10, 3) WHERE v > 0 GROUP BY k, window_start, window_end;
CREATE MATERIALIZED VIEW c_all USING continuous AS
  SELECT window_start, max(v) AS m FROM s, count_window(7) GROUP BY window_start;
CREATE MATERIALIZED VIEW c_one USING continuous WITH (emit = final) AS
  SELECT window_end, k, sum(v) AS m FROM s, count_window(1) GROUP BY window_end, k;

-- rows in which a view and its query, run over the stream, differ
CREATE FUNCTION differences() RETURNS TABLE (view text, missing bigint, surplus bigint) LANGUAGE plpgsql AS $$
DECLARE v record; q text;
BEGIN
  FOR v IN SELECT c.oid, c.relname FROM pg_class c WHERE c.relnamespace = 'spans'::regnamespace AND c.relkind = 'm' AND c.relname NOT IN ('s_final', 'c_one') ORDER BY 2 LOOP
    q := replace(rtrim(pg_get_viewdef(v.oid), ';'), 'array_agg(s.id)', 'array_agg(s.id ORDER BY l.seq)');
    q := replace(q, 'array_agg(s.id ORDER BY l.seq)', 'array_agg(s.id ORDER BY (SELECT seq FROM log l WHERE l.id = s.id))');
    view := v.relname;
    EXECUTE format('SELECT count(*) FROM (%s EXCEPT ALL TABLE %s) x', q, v.oid::regclass) INTO missing;
    EXECUTE format('SELECT count(*) FROM (TABLE %s EXCEPT ALL %s) x', v.oid::regclass, q) INTO surplus;
    RETURN NEXT;
  END LOOP;
END $$;

SELECT weir.wait_for();
SELECT * FROM differences();
SELECT feed(20, 20);
SELECT weir.wait_for();
SELECT * FROM differences();
DO $$ BEGIN FOR i IN 3..6 LOOP PERFORM feed(i * 10, 30); END LOOP; END $$;
SELECT weir.wait_for();
SELECT * FROM differences();
SELECT weir.checkpoint();
SELECT * FROM differences();
SELECT feed(90, 40);
SELECT feed(100, 40);
SELECT feed(101, 10);
SELECT weir.wait_for();
SELECT * FROM differences();
SELECT weir.checkpoint();
SELECT * FROM differences();
SELECT view, late, late_partial FROM weir.views ORDER BY view::text;
SELECT count(*) > 10 AS some, bool_and(weir.is_final('s_final', window_end)) AS all_final FROM s_final;
SELECT window_start, window_end, k, n FROM s_final EXCEPT ALL SELECT window_start, window_end, k, n FROM s_flat;
SELECT count(*) = (SELECT count(*) FROM log) AS each, bool_and(window_end IS NOT NULL) AS complete FROM c_one;

-- keys are looked up, final or live
EXPLAIN (COSTS OFF) SELECT * FROM s_flat WHERE k = 3;
SELECT count(*) > 0 AS some, sum(n) = (SELECT sum(n) FROM s_flat WHERE k::text = '3') AS same FROM s_flat WHERE k = 3;
SELECT count(*) > 0 AS some, sum(n) = (SELECT count(*) FROM log WHERE k IS NULL) AS same FROM c_2 WHERE k IS NULL;

-- from the checkpoint; rebuilt
SELECT weir.pause(view) FROM weir.views;
SELECT * FROM differences();
SELECT weir.resume(view) FROM weir.views;
REFRESH MATERIALIZED VIEW s_flat;
REFRESH MATERIALIZED VIEW s_rows;
REFRESH MATERIALIZED VIEW c_slide;
REFRESH MATERIALIZED VIEW c_2;
SELECT feed(110, 20);
SELECT weir.wait_for();
SELECT * FROM differences();

-- late: a row that would have joined a final session, one that bridges
CREATE TABLE t (k text, v int, ts timestamp NOT NULL) USING stream WITH (event_time = ts, watermark_delay = '5 s');
CREATE MATERIALIZED VIEW t_s USING continuous AS SELECT k, window_start, window_end, count(*) AS n, array_agg(v) AS vs FROM t, session(ts, '5 s') GROUP BY k, window_start, window_end;
CREATE VIEW state AS SELECT k, window_start::time AS ws, window_end::time AS we, n, vs, weir.is_final('t_s', window_end) AS final FROM t_s;
CREATE FUNCTION late() RETURNS bigint LANGUAGE sql AS $$ SELECT late FROM weir.views WHERE view = 't_s'::regclass $$;
INSERT INTO t VALUES ('a', 1, '2026-01-01 00:00:10'), ('a', 2, '2026-01-01 00:00:20'), ('b', 3, '2026-01-01 00:00:10');
SELECT weir.wait_for('t_s');
TABLE state ORDER BY 1, 2;
-- touches on both sides: exactly a gap away
INSERT INTO t VALUES ('a', 4, '2026-01-01 00:00:15');
SELECT weir.wait_for('t_s');
TABLE state ORDER BY 1, 2;
INSERT INTO t VALUES ('a', 5, '2026-01-01 00:00:15.000001');
SELECT weir.wait_for('t_s');
TABLE state ORDER BY 1, 2;
-- W = 15 is not beyond the end of b's session yet: a row there still joins
INSERT INTO t VALUES ('b', 6, '2026-01-01 00:00:15');
SELECT weir.wait_for('t_s');
TABLE state ORDER BY 1, 2;
SELECT late();
INSERT INTO t VALUES ('c', 7, '2026-01-01 00:00:25.000001');
INSERT INTO t VALUES ('b', 8, '2026-01-01 00:00:20'), ('b', 9, '2026-01-01 00:00:21'), ('d', 9, '2026-01-01 00:00:15'), ('d', 10, '2026-01-01 00:00:16');
SELECT weir.wait_for('t_s');
TABLE state ORDER BY 1, 2;
SELECT late();
SELECT weir.checkpoint();
TABLE state ORDER BY 1, 2;
-- what is in the heap is remembered as long as rows could join it
INSERT INTO t VALUES ('b', 11, '2026-01-01 00:00:26'), ('b', 12, '2026-01-01 00:00:26.000001');
INSERT INTO t VALUES ('c', 13, '2026-01-01 00:00:31.000003');
INSERT INTO t VALUES ('b', 14, '2026-01-01 00:00:26'), ('c', 15, '2026-01-01 00:00:30');
SELECT weir.checkpoint();
INSERT INTO t VALUES ('b', 16, '2026-01-01 00:00:31'), ('b', 17, '2026-01-01 00:00:26.000001');
SELECT weir.wait_for('t_s');
TABLE state ORDER BY 1, 2;
SELECT late();
REFRESH MATERIALIZED VIEW t_s;
SELECT weir.wait_for('t_s');
TABLE state ORDER BY 1, 2;
SELECT late();
SELECT weir.advance_watermark('t', '2026-01-01 01:00');
SELECT weir.wait_for('t_s');
SELECT weir.checkpoint();
TABLE state ORDER BY 1, 2;

-- times before 2000 are negative inside; a session lives from batch to batch
CREATE TABLE old (k int, v int, ts timestamptz NOT NULL) USING stream WITH (event_time = ts, watermark_delay = '10 s');
CREATE MATERIALIZED VIEW old_s USING continuous AS
  SELECT k, window_start, window_end, count(*) AS n, array_agg(v) AS vs FROM old, session(ts, '5 s') GROUP BY k, window_start, window_end;
INSERT INTO old VALUES (1, 1, '1969-12-31 23:59:58+00');
SELECT weir.wait_for('old_s');
INSERT INTO old VALUES (1, 2, '1969-12-31 23:59:59+00');
SELECT weir.wait_for('old_s');
SELECT weir.checkpoint();
INSERT INTO old VALUES (1, 3, '1970-01-01 00:00:01+00');
SELECT weir.wait_for('old_s');
TABLE old_s;

-- refused
CREATE MATERIALIZED VIEW bad USING continuous AS SELECT window_start, count(*) FROM s, session(ts, '1 month') GROUP BY window_start;
CREATE MATERIALIZED VIEW bad USING continuous AS SELECT window_start, count(*) FROM s, session(ts, '0') GROUP BY window_start;
CREATE MATERIALIZED VIEW bad USING continuous AS SELECT window_start, count(*) FROM s, session(ts, v * interval '1 s') GROUP BY window_start;
CREATE MATERIALIZED VIEW bad USING continuous AS SELECT window_start, count(*) FROM s, session(ts, '5 s') WHERE window_end > '2026-01-01' GROUP BY window_start;
CREATE MATERIALIZED VIEW bad USING continuous AS SELECT window_start, max(window_end - ts) FROM s, session(ts, '5 s') GROUP BY window_start;
CREATE MATERIALIZED VIEW bad USING continuous AS SELECT k, count(*) FROM s, session(ts, '5 s') GROUP BY k;
CREATE MATERIALIZED VIEW bad USING continuous AS SELECT a.window_start, count(*) FROM s, session(ts, '5 s') a, hop(ts, '5 s', '5 s') b GROUP BY a.window_start;
CREATE MATERIALIZED VIEW bad USING continuous AS SELECT window_start, count(*) FROM s, session(ts + interval '1 s', '5 s') GROUP BY window_start;
CREATE MATERIALIZED VIEW bad USING continuous AS SELECT window_start, count(*) FROM s, count_window(0) GROUP BY window_start;
CREATE MATERIALIZED VIEW bad USING continuous AS SELECT window_start, count(*) FROM s, count_window(2, 3) GROUP BY window_start;
CREATE MATERIALIZED VIEW bad USING continuous AS SELECT window_start, count(*) FROM s, count_window(v) GROUP BY window_start;
CREATE MATERIALIZED VIEW bad USING continuous AS SELECT window_start, count(*) FROM s, count_window(5) WHERE window_start > 5 GROUP BY window_start;
CREATE MATERIALIZED VIEW bad USING continuous AS SELECT count(*) FROM s, count_window(5);
CREATE MATERIALIZED VIEW bad USING continuous WITH (allowed_lateness = '1 s') AS SELECT window_start, count(*) FROM s, count_window(5) GROUP BY window_start;
CREATE MATERIALIZED VIEW bad USING continuous WITH (retention = '1 day') AS SELECT window_end, count(*) FROM s, count_window(5) GROUP BY window_end;
CREATE MATERIALIZED VIEW bad USING continuous WITH (retention = '1 day') AS SELECT window_start, count(*) FROM s, session(ts, '5 s') GROUP BY window_start;
CREATE MATERIALIZED VIEW bad USING continuous AS SELECT window_end, min(window_start) FROM s, count_window(5, 3) GROUP BY window_start, window_end;
SELECT weir.is_final('c_2', now());
DROP SCHEMA spans CASCADE;

-- a session in the heap is remembered for as long as one may begin that joins it
CREATE TABLE sp_late (k int, ts timestamptz NOT NULL) USING stream
  WITH (event_time = ts, watermark_delay = '0');
CREATE MATERIALIZED VIEW sp_late_v USING continuous AS
  SELECT k, window_start, window_end, count(*) AS n FROM sp_late, session(ts, '10 s')
  GROUP BY k, window_start, window_end;
INSERT INTO sp_late VALUES (1, '2026-01-01 00:01:30Z');
INSERT INTO sp_late VALUES (2, '2026-01-01 00:01:51Z');
SELECT weir.wait_for('sp_late_v');
SELECT weir.checkpoint();
-- this one finds that nobody needs it in memory any more
INSERT INTO sp_late VALUES (3, '2026-01-01 00:01:51Z');
SELECT weir.wait_for('sp_late_v');
SELECT weir.checkpoint();
INSERT INTO sp_late VALUES (1, '2026-01-01 00:01:45Z');
INSERT INTO sp_late VALUES (1, '2026-01-01 00:01:38Z');
SELECT weir.wait_for('sp_late_v');
SELECT * FROM sp_late_v ORDER BY k, window_start;
SELECT late FROM weir.views WHERE view = 'sp_late_v'::regclass;
DROP TABLE sp_late CASCADE;

-- rows that bridge: two sessions within lateness, a final one and a live one
CREATE TABLE br (k text, v int, ts timestamp NOT NULL) USING stream WITH (event_time = ts, watermark_delay = '0');
CREATE MATERIALIZED VIEW br_0 USING continuous AS
  SELECT k, window_start, window_end, array_agg(v) AS vs FROM br, session(ts, '10 s') GROUP BY k, window_start, window_end;
CREATE MATERIALIZED VIEW br_20 USING continuous WITH (allowed_lateness = '20 s') AS
  SELECT k, window_start, window_end, array_agg(v) AS vs FROM br, session(ts, '10 s') GROUP BY k, window_start, window_end;
CREATE VIEW br_rows AS
  SELECT 'br_0' AS view, k, window_start::time AS ws, window_end::time AS we, vs, weir.is_final('br_0', window_end) AS final FROM br_0
  UNION ALL SELECT 'br_20', k, window_start::time, window_end::time, vs, weir.is_final('br_20', window_end) FROM br_20;
CREATE VIEW br_late AS SELECT view, late FROM weir.views WHERE view IN ('br_0'::regclass, 'br_20'::regclass);
INSERT INTO br VALUES ('a', 1, '2026-01-01 00:00:00'), ('a', 2, '2026-01-01 00:00:18'), ('b', 3, '2026-01-01 00:00:00'), ('b', 4, '2026-01-01 00:00:18');
SELECT weir.wait_for();
TABLE br_rows ORDER BY 1, 2, 3;
-- W is 18: both sessions of a become one, or it is late for one of them, final at 10
INSERT INTO br VALUES ('a', 5, '2026-01-01 00:00:09');
-- touches the final one, is a microsecond away from it
INSERT INTO br VALUES ('a', 6, '2026-01-01 00:00:10'), ('b', 7, '2026-01-01 00:00:10.000001');
SELECT weir.wait_for();
TABLE br_rows ORDER BY 1, 2, 3;
TABLE br_late ORDER BY view::text;
-- W is 31, W less lateness 11: the first of b is final, and in the heap
INSERT INTO br VALUES ('c', 8, '2026-01-01 00:00:31');
SELECT weir.wait_for();
SELECT weir.checkpoint();
INSERT INTO br VALUES ('b', 9, '2026-01-01 00:00:09'), ('a', 10, '2026-01-01 00:00:09'), ('b', 11, '2026-01-01 00:00:11');
SELECT weir.wait_for();
TABLE br_rows ORDER BY 1, 2, 3;
TABLE br_late ORDER BY view::text;
-- W is 67, W less lateness 47: 25 is too old to make a live session begin earlier, 28 is not; 40 is within it
INSERT INTO br SELECT 'd', s, timestamp '2026-01-01' + s * interval '1 s' FROM unnest(ARRAY[31, 40, 49, 58, 67]) s;
INSERT INTO br VALUES ('d', 125, '2026-01-01 00:00:25'), ('d', 140, '2026-01-01 00:00:40'), ('d', 128, '2026-01-01 00:00:28');
SELECT weir.wait_for();
SELECT * FROM br_rows WHERE k = 'd' ORDER BY 1, 2, 3;
TABLE br_late ORDER BY view::text;
CREATE TABLE br_before AS TABLE br_rows;
REFRESH MATERIALIZED VIEW br_0;
REFRESH MATERIALIZED VIEW br_20;
SELECT weir.wait_for();
SELECT count(*) FROM ((TABLE br_before EXCEPT ALL TABLE br_rows) UNION ALL (TABLE br_rows EXCEPT ALL TABLE br_before)) d;
TABLE br_late ORDER BY view::text;
DROP TABLE br CASCADE;
DROP TABLE br_before;

-- HAVING may ask for the windows: the rows are those of the query
CREATE TABLE hv (k int, v int, ts timestamptz NOT NULL) USING stream WITH (event_time = ts, watermark_delay = '0');
CREATE MATERIALIZED VIEW hv_s USING continuous AS
  SELECT k, window_start, window_end, sum(v) AS s FROM hv, session(ts, '10 s') GROUP BY k, window_start, window_end
  HAVING window_end - window_start > interval '10 s' AND window_start < '2026-01-01 00:01Z';
CREATE MATERIALIZED VIEW hv_open USING continuous AS
  SELECT k, window_start, sum(v) AS s FROM hv, count_window(3) GROUP BY k, window_start, window_end HAVING window_end IS NULL;
CREATE MATERIALIZED VIEW hv_full USING continuous AS
  SELECT k, window_start, window_end, sum(v) AS s FROM hv, count_window(3, 1) GROUP BY k, window_start, window_end HAVING window_end % 2 = 0 AND sum(v) > 6;
CREATE MATERIALIZED VIEW hv_t USING continuous AS
  SELECT k, window_start, sum(v) AS s FROM hv, tumble(ts, '10 s') WHERE window_start >= '2026-01-01 00:00:10Z' AND (window_end <= '2026-01-01 00:01Z' OR v > 5) AND ts > window_start
  GROUP BY k, window_start;
CREATE FUNCTION differ() RETURNS TABLE (view text, rows bigint, differ bigint) LANGUAGE plpgsql AS $$
BEGIN
  FOREACH view IN ARRAY '{hv_s,hv_open,hv_full,hv_t}'::text[] LOOP
    EXECUTE format('SELECT (SELECT count(*) FROM %1$I), (SELECT count(*) FROM ((TABLE %1$I EXCEPT ALL %2$s) UNION ALL (%2$s EXCEPT ALL TABLE %1$I)) d)',
      view, rtrim(pg_get_viewdef(view::regclass), ';')) INTO rows, differ;
    RETURN NEXT;
  END LOOP;
END $$;
INSERT INTO hv SELECT i % 2, i, timestamptz '2026-01-01Z' + i * interval '4 s' FROM generate_series(1, 9) i;
SELECT weir.wait_for();
SELECT * FROM differ();
TABLE hv_s ORDER BY k;
TABLE hv_open ORDER BY k;
INSERT INTO hv VALUES (0, 10, '2026-01-01 00:00:50Z'), (0, 11, '2026-01-01 00:02:00Z'), (0, 12, '2026-01-01 00:02:05Z');
SELECT weir.wait_for();
SELECT weir.checkpoint();
SELECT * FROM differ();
TABLE hv_s ORDER BY k, window_start;
TABLE hv_open ORDER BY k;
TABLE hv_full ORDER BY k, window_start;
TABLE hv_t ORDER BY k, window_start;
-- once for good when they become final
SELECT weir.advance_watermark('hv', 'infinity');
SELECT weir.wait_for();
SELECT weir.checkpoint();
SELECT * FROM differ();
DROP TABLE hv CASCADE;
DROP FUNCTION differ;
