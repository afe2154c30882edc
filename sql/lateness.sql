-- What is late, what is final: judged by the watermark that the transactions
-- before have left, as a query over (transaction, event time) says it must be.
SET timezone = 'UTC';
SET datestyle = 'ISO';
SET client_min_messages = warning;
CREATE TABLE lt (x int, id int, k int, v numeric, ts timestamptz NOT NULL)
  USING stream WITH (event_time = ts, watermark_delay = '10 seconds');
CREATE MATERIALIZED VIEW l0 USING continuous AS
  SELECT window_start, window_end, k, count(*) AS n, sum(v) AS s FROM lt, tumble(ts, '1 minute') GROUP BY window_start, window_end, k;
CREATE MATERIALIZED VIEW l1 USING continuous WITH (allowed_lateness = '90 seconds') AS
  SELECT window_start, window_end, k, count(*) AS n, sum(v) AS s FROM lt, tumble(ts, '1 minute') GROUP BY window_start, window_end, k;
CREATE MATERIALIZED VIEW linf USING continuous WITH (allowed_lateness = infinity) AS
  SELECT window_start, window_end, k, count(*) AS n, sum(v) AS s FROM lt, tumble(ts, '1 minute') GROUP BY window_start, window_end, k;
CREATE MATERIALIZED VIEW lw USING continuous AS
  SELECT window_start, window_end, k, count(*) AS n, sum(v) AS s FROM lt, tumble(ts, '1 minute') WHERE k > 1 GROUP BY window_start, window_end, k;
CREATE MATERIALIZED VIEW lf USING continuous WITH (emit = final) AS
  SELECT window_start, window_end, k, count(*) AS n, sum(v) AS s FROM lt, tumble(ts, '1 minute') GROUP BY window_start, window_end, k HAVING count(*) > 1;
CREATE MATERIALIZED VIEW lt2 USING continuous AS
  SELECT date_trunc('minute', ts) AS w, count(*) AS n, array_agg(id ORDER BY id) AS ids FROM lt GROUP BY 1;
CREATE MATERIALIZED VIEW lnone USING continuous AS SELECT k, count(*) AS n FROM lt GROUP BY k;

-- the model: W before a transaction is the highest event time before it less the delay
CREATE VIEW judged AS
  SELECT l.*, date_trunc('minute', ts) AS ws, date_trunc('minute', ts) + interval '1 minute' AS we,
    coalesce((SELECT max(e.ts) - interval '10 seconds' FROM lt e WHERE e.x < l.x), '-infinity') AS w FROM lt l;
CREATE FUNCTION batch(lateness interval, min_k int DEFAULT -1) RETURNS TABLE (window_start timestamptz, window_end timestamptz, k int, n bigint, s numeric) LANGUAGE sql AS
  $$ SELECT ws, we, j.k, count(*), sum(v) FROM judged j WHERE we + lateness > w AND j.k > min_k GROUP BY 1, 2, 3 $$;
CREATE VIEW verdict AS
  SELECT (SELECT count(*) FROM ((TABLE l0 EXCEPT ALL SELECT * FROM batch('0')) UNION ALL (SELECT * FROM batch('0') EXCEPT ALL TABLE l0)) d) AS l0,
    (SELECT count(*) FROM ((TABLE l1 EXCEPT ALL SELECT * FROM batch('90 s')) UNION ALL (SELECT * FROM batch('90 s') EXCEPT ALL TABLE l1)) d) AS l1,
    (SELECT count(*) FROM ((TABLE linf EXCEPT ALL SELECT * FROM batch('1 year')) UNION ALL (SELECT * FROM batch('1 year') EXCEPT ALL TABLE linf)) d) AS linf,
    (SELECT count(*) FROM ((TABLE lw EXCEPT ALL SELECT * FROM batch('0', 1)) UNION ALL (SELECT * FROM batch('0', 1) EXCEPT ALL TABLE lw)) d) AS lw,
    (SELECT count(*) FROM ((TABLE lf EXCEPT ALL SELECT * FROM batch('0') WHERE n > 1 AND window_end <= weir.watermark('lt'))
      UNION ALL (SELECT * FROM batch('0') WHERE n > 1 AND window_end <= weir.watermark('lt') EXCEPT ALL TABLE lf)) d) AS lf,
    (SELECT count(*) FROM (SELECT ws, count(*), array_agg(id ORDER BY id) FROM judged WHERE we > w GROUP BY 1 EXCEPT ALL TABLE lt2) d) AS lt2,
    (SELECT count(*) FROM (SELECT k, count(*) FROM lt GROUP BY 1 EXCEPT ALL TABLE lnone) d) AS lnone;
CREATE VIEW counted AS
  SELECT v.view, events_in, late, late_partial, watermark = weir.watermark('lt') AS same_watermark,
    late = (SELECT count(*) FROM judged WHERE we + CASE v.view::text WHEN 'l1' THEN interval '90 s' WHEN 'linf' THEN '1 year' ELSE '0' END <= w
            AND (v.view::text <> 'lw' OR k > 1) AND v.view::text <> 'lnone') AS late_right
  FROM weir.views v WHERE v.view::text ~ '^l';
CREATE FUNCTION put(x int, VARIADIC seconds numeric[]) RETURNS void LANGUAGE sql AS $$
  INSERT INTO lt SELECT x, x * 100 + o, o % 4, s, timestamptz '2020-01-01' + s * interval '1 s' FROM unnest(seconds) WITH ORDINALITY u(s, o) $$;

SELECT put(1, 5, 20, 59.999999, 60, 3);
SELECT put(2, 69.999999, 59, 58);
-- the window [0, 60) is final exactly when W is 60
SELECT weir.wait_for();
SELECT weir.watermark('lt'), weir.is_final('l0', '2020-01-01 00:01:00+00'::timestamptz) AS f0, weir.is_final('l1', '2020-01-01 00:01:00+00'::timestamptz) AS f1;
SELECT put(3, 59.5, 70, 1, 2, 59.999999);
SELECT weir.wait_for();
SELECT weir.watermark('lt'), weir.is_final('l0', '2020-01-01 00:01:00+00'::timestamptz) AS f0, weir.is_final('l1', '2020-01-01 00:01:00+00'::timestamptz) AS f1;
-- late from here on, for the first minute; rows of one transaction never make each other late
SELECT put(4, 59, 60, 400, 0, 130, 61, 5);
SELECT put(5, 59, 119, 380, 389, 390);
SELECT weir.wait_for();
SELECT weir.checkpoint();
TABLE verdict;
TABLE counted ORDER BY view::text;
-- and after the windows have gone to the heap, and another worker has come
SELECT put(6, 10, 70, 130, 200, 299, 301, 391, 2000);
SELECT count(pg_terminate_backend(pid, 10000)) > 0 AS ended FROM weir.workers;
SELECT put(7, 10, 70, 130, 200, 299, 301, 391, 1800, 1900, 1999, 1940);
SELECT put(8, 2120, 2090, 1961);
SELECT put(9, 1900, 1960, 2000, 2040, 2100);
SELECT weir.wait_for();
SELECT weir.checkpoint();
TABLE verdict;
TABLE counted ORDER BY view::text;
-- a heartbeat counts after the rows of its transaction
BEGIN;
SELECT weir.advance_watermark('lt', '2020-01-01 02:00+00');
SELECT put(10, 2101, 2050);
COMMIT;
SELECT weir.wait_for();
SELECT weir.checkpoint();
SELECT count(*) AS live FROM l0 WHERE NOT weir.is_final('l0', window_end);
TABLE verdict;

-- longer lateness is for windows that are not final yet, whether or not they are
-- in the heap already
SELECT put(11, 7500, 7300);
SELECT weir.wait_for();
ALTER MATERIALIZED VIEW l0 SET (allowed_lateness = '1 hour');
SELECT put(12, 7200, 7450, 5000);
SELECT weir.wait_for();
SELECT window_start, n FROM l0 WHERE window_start > '2020-01-01 01:00+00' ORDER BY 1;
-- this one was not: W is 02:04:50
SELECT put(13, 10000);
SELECT put(14, 7470, 7440);
SELECT weir.wait_for();
SELECT window_start, sum(n) FROM l0 WHERE window_start > '2020-01-01 01:00+00' GROUP BY 1 ORDER BY 1;
ALTER MATERIALIZED VIEW l0 RESET (allowed_lateness);
SELECT put(15, 7470, 9960);
SELECT weir.wait_for();
SELECT window_start, sum(n) FROM l0 WHERE window_start > '2020-01-01 01:00+00' GROUP BY 1 ORDER BY 1;
SELECT late FROM weir.views WHERE view = 'l0'::regclass;
-- REFRESH takes the late rows in that the lateness of now allows
ALTER MATERIALIZED VIEW l0 SET (allowed_lateness = '1 hour');
CREATE MATERIALIZED VIEW l_new USING continuous WITH (allowed_lateness = '1 hour') AS
  SELECT window_start, window_end, k, count(*) AS n, sum(v) AS s FROM lt, tumble(ts, '1 minute') GROUP BY window_start, window_end, k;
REFRESH MATERIALIZED VIEW l0;
SELECT weir.wait_for();
SELECT count(*) FROM ((TABLE l0 EXCEPT ALL TABLE l_new) UNION ALL (TABLE l_new EXCEPT ALL TABLE l0)) d;
SELECT window_start, sum(n) FROM l0 WHERE window_start > '2020-01-01 01:00+00' GROUP BY 1 ORDER BY 1;
SELECT view, late FROM weir.views WHERE view::text IN ('l0', 'l_new') ORDER BY view::text;
-- when W has passed everything, nothing is live but what never is final
SELECT weir.advance_watermark('lt', '2020-02-01');
SELECT weir.wait_for();
SELECT weir.checkpoint();
SELECT (SELECT count(*) FROM l0 TABLESAMPLE system (100)) = (SELECT count(*) FROM l0) AS l0, (SELECT count(*) FROM linf TABLESAMPLE system (100)) AS linf,
  (SELECT bool_and(weir.is_final('l1', window_end)) FROM l1) AS l1_final, (SELECT bool_or(weir.is_final('linf', window_end)) FROM linf) AS linf_final;

DROP TABLE lt CASCADE;
DROP FUNCTION put;
