-- GROUPING SETS, ROLLUP, CUBE: a view has the rows of its query run over the
-- stream.
SET timezone = 'UTC';
SET datestyle = 'ISO';
SET client_min_messages = warning;
CREATE SCHEMA gs;
SET search_path = gs, public;
CREATE TABLE s (a int, b text, c int, v int, ts timestamptz NOT NULL)
  USING stream WITH (event_time = ts, watermark_delay = '30 seconds');
CREATE MATERIALIZED VIEW v_sets USING continuous AS
  SELECT a, b, count(*) AS n, sum(v) AS s, GROUPING(a, b) AS g, GROUPING(b) AS gb FROM s GROUP BY GROUPING SETS ((a, b), (a), (b), ());
CREATE MATERIALIZED VIEW v_rollup USING continuous AS
  SELECT a, b, c + 1 AS c1, count(a) AS na, count(b) AS nb, sum(a) AS sa, min(b) AS mb, string_agg(b, ',' ORDER BY b, v) AS bs FROM s GROUP BY ROLLUP (a, b, c + 1);
CREATE MATERIALIZED VIEW v_cube USING continuous AS
  SELECT lower(b) AS lb, a % 2 AS odd, count(*) AS n, count(DISTINCT v) AS dv, avg(v) AS av FROM s GROUP BY CUBE (lower(b), a % 2)
  HAVING GROUPING(lower(b)) = 1 OR count(*) > 2;
CREATE MATERIALIZED VIEW v_twice USING continuous AS
  SELECT a, count(*) AS n FROM s GROUP BY GROUPING SETS ((a), (a), (), ());
CREATE MATERIALIZED VIEW v_once USING continuous AS
  SELECT a, count(*) AS n FROM s GROUP BY DISTINCT GROUPING SETS ((a), (a), (), ());
CREATE MATERIALIZED VIEW v_none USING continuous AS SELECT count(*) AS n, sum(v) AS s FROM s GROUP BY ();
CREATE MATERIALIZED VIEW v_mixed USING continuous AS
  SELECT a, b, c, count(*) AS n, GROUPING(a, b, c) AS g, coalesce(a::text, 'all') || '/' || GROUPING(a) AS label FROM s GROUP BY a, ROLLUP (b, c);
CREATE MATERIALIZED VIEW v_win USING continuous AS
  SELECT window_start, a, b, count(*) AS n, sum(v) AS s, GROUPING(a, b) AS g FROM s, tumble(ts, '10 s') GROUP BY window_start, CUBE (a, b);
CREATE MATERIALIZED VIEW v_hop USING continuous AS
  SELECT window_start, window_end, a, count(*) AS n, array_agg(v ORDER BY v) AS vs FROM s, hop(ts, '5 s', '15 s') GROUP BY window_start, window_end, ROLLUP (a);

CREATE FUNCTION differences() RETURNS TABLE (view text, missing bigint, surplus bigint) LANGUAGE plpgsql AS $$
DECLARE v record; q text;
BEGIN
  FOR v IN SELECT c.oid, c.relname FROM pg_class c WHERE c.relnamespace = 'gs'::regnamespace AND c.relkind = 'm' ORDER BY 2 LOOP
    q := rtrim(pg_get_viewdef(v.oid), ';');
    view := v.relname;
    EXECUTE format('SELECT count(*) FROM (%s EXCEPT ALL TABLE %s) x', q, v.oid::regclass) INTO missing;
    EXECUTE format('SELECT count(*) FROM (TABLE %s EXCEPT ALL %s) x', v.oid::regclass, q) INTO surplus;
    RETURN NEXT;
  END LOOP;
END $$;
-- no row yet: the empty sets have one
TABLE v_sets;
TABLE v_twice;
SELECT weir.wait_for();
SELECT * FROM differences();
INSERT INTO s SELECT nullif(i % 5, 4), CASE WHEN i % 4 > 0 THEN chr(64 + i % 3) || repeat('x', i % 2) END, i % 3, i, timestamptz '2026-01-01' + i * interval '0.5 s'
  FROM generate_series(1, 200) i;
SELECT weir.wait_for();
SELECT * FROM differences();
TABLE v_sets ORDER BY g, a, b;
INSERT INTO s SELECT nullif(i % 5, 4), 'B', i % 3, i, timestamptz '2026-01-01' + i * interval '0.5 s' FROM generate_series(200, 300) i;
SELECT weir.wait_for();
SELECT weir.checkpoint();
SELECT * FROM differences();
SELECT count(*) > 10 AS some_final FROM v_win WHERE weir.is_final('v_win', window_start + interval '10 s');
-- late once, whatever the number of sets
INSERT INTO s VALUES (1, 'late', 1, 1, '2026-01-01'), (1, 'late', 1, 1, '2026-01-01 00:01:56+00');
SELECT weir.wait_for();
SELECT view, late, late_partial FROM weir.views WHERE view IN ('v_win'::regclass, 'v_hop'::regclass) ORDER BY 1::text;
-- from the checkpoint, rebuilt
SELECT weir.pause('v_rollup');
SELECT weir.pause('v_sets');
SELECT view, missing, surplus FROM differences() WHERE view IN ('v_rollup', 'v_sets');
SELECT weir.resume('v_rollup');
SELECT weir.resume('v_sets');
REFRESH MATERIALIZED VIEW v_rollup;
REFRESH MATERIALIZED VIEW v_twice;
SELECT weir.wait_for();
SELECT view, missing, surplus FROM differences() WHERE view NOT IN ('v_win', 'v_hop');
EXPLAIN (COSTS OFF) SELECT * FROM v_sets WHERE a = 1 AND b = 'A';
SELECT a, b, n, g FROM v_sets WHERE a = 1 AND b = 'A';
SELECT * FROM weir.explain('v_once') LIMIT 5;
-- refused
CREATE UNIQUE INDEX ON v_sets (a, b);
CREATE MATERIALIZED VIEW bad USING continuous AS SELECT window_start, a, count(*) FROM s, tumble(ts, '10 s') GROUP BY ROLLUP (window_start, a);
CREATE MATERIALIZED VIEW bad USING continuous AS SELECT window_start, a, count(*) FROM s, session(ts, '10 s') GROUP BY window_start, ROLLUP (a);
CREATE MATERIALIZED VIEW bad USING continuous AS SELECT window_start, a, count(*) FROM s, count_window(10) GROUP BY window_start, ROLLUP (a);
CREATE MATERIALIZED VIEW bad USING continuous AS SELECT max(n) FROM (SELECT count(*) AS n FROM s GROUP BY GROUPING SETS (())) q;
CREATE MATERIALIZED VIEW bad USING continuous AS SELECT count(*) FROM s, tumble(ts, '1 s') GROUP BY GROUPING SETS (());
DROP SCHEMA gs CASCADE;
