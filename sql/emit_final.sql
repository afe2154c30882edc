-- emit = final: rows show when their window can no longer change; and
-- weir.is_final, which says so of every window there is.
SET timezone = 'UTC';
SET datestyle = 'ISO';
SET client_min_messages = warning;
CREATE SCHEMA emit_final;
SET search_path = emit_final, public;
CREATE TABLE ev (k int, ts timestamptz NOT NULL, local timestamp) USING stream WITH (event_time = ts, watermark_delay = '10 seconds');
CREATE MATERIALIZED VIEW f USING continuous WITH (emit = final) AS
  SELECT window_start, window_end, k, count(*) AS n FROM ev, tumble(ts, '1 minute') GROUP BY 1, 2, 3;
CREATE MATERIALIZED VIEW later USING continuous WITH (emit = final, allowed_lateness = '1 minute') AS
  SELECT window_end, count(*) AS n FROM ev, tumble(ts, '1 minute') GROUP BY 1;
CREATE MATERIALIZED VIEW many USING continuous WITH (emit = final) AS
  SELECT window_end, k, count(*) AS n FROM ev, tumble(ts, '1 minute') GROUP BY 1, 2 HAVING count(*) > 1;
CREATE MATERIALIZED VIEW hours USING continuous WITH (emit = final) AS
  SELECT date_trunc('hour', ts) AS h, count(*) AS n FROM ev GROUP BY 1;
CREATE MATERIALIZED VIEW bins USING continuous WITH (emit = final) AS
  SELECT date_bin('90 seconds', ts, '2020-01-01') AS b, count(*) AS n FROM ev GROUP BY 1;
CREATE MATERIALIZED VIEW live USING continuous WITH (emit = live) AS
  SELECT window_end, count(*) AS n FROM ev, tumble(ts, '1 minute') GROUP BY 1;
-- what must show: the query's rows of windows that ended by W
CREATE FUNCTION differ() RETURNS TABLE (view text, rows bigint, differ bigint, all_final boolean) LANGUAGE plpgsql AS $$
  DECLARE
    r record;
    w timestamptz := weir.watermark('ev');
  BEGIN
    FOR r IN SELECT * FROM (VALUES
        ('f', 'window_end', 'SELECT window_start, window_end, k, count(*) FROM ev, tumble(ts, ''1 minute'') WHERE window_end <= $1 GROUP BY 1, 2, 3'),
        ('later', 'window_end', 'SELECT window_end, count(*) FROM ev, tumble(ts, ''1 minute'') WHERE window_end <= $1 - interval ''1 minute'' GROUP BY 1'),
        ('many', 'window_end', 'SELECT window_end, k, count(*) FROM ev, tumble(ts, ''1 minute'') WHERE window_end <= $1 GROUP BY 1, 2 HAVING count(*) > 1'),
        ('hours', 'h + interval ''1 hour''', 'SELECT date_trunc(''hour'', ts), count(*) FROM ev WHERE date_trunc(''hour'', ts) + interval ''1 hour'' <= $1 GROUP BY 1'),
        ('bins', 'b + interval ''90 s''', 'SELECT date_bin(''90 seconds'', ts, ''2020-01-01''), count(*) FROM ev WHERE date_bin(''90 seconds'', ts, ''2020-01-01'') + interval ''90 s'' <= $1 GROUP BY 1'))
        v(name, ends, query) LOOP
      view := r.name;
      EXECUTE format('SELECT (SELECT count(*) FROM %1$s), (SELECT count(*) FROM ((TABLE %1$s EXCEPT ALL %2$s) UNION ALL (%2$s EXCEPT ALL TABLE %1$s)) d),
        (SELECT bool_and(weir.is_final(%1$L, %3$s)) FROM %1$s)', r.name, r.query, r.ends) INTO rows, differ, all_final USING w;
      RETURN NEXT;
    END LOOP;
  END $$;

TABLE f;
INSERT INTO ev SELECT i % 3, timestamptz '2020-01-01' + i * interval '1 s', timestamp '2020-01-01' + i * interval '1 s' FROM generate_series(0, 69) i;
SELECT weir.wait_for();
-- W is 59 s: nothing is final
SELECT * FROM differ();
SELECT weir.is_final('f', timestamptz '2020-01-01 00:00:59'), weir.is_final('f', timestamptz '2020-01-01 00:01:00'), weir.is_final('hours', timestamptz '2020-01-01 00:00:59');
INSERT INTO ev VALUES (9, '2020-01-01 00:01:10');
SELECT weir.wait_for();
-- W is the end of the first minute: its rows come without being asked for
DO $$ BEGIN FOR i IN 1 .. 1000 LOOP EXIT WHEN EXISTS (SELECT FROM f); PERFORM pg_sleep(0.01); END LOOP; END $$;
SELECT weir.checkpoint();
SELECT * FROM differ();
SELECT weir.is_final('f', timestamptz '2020-01-01 00:01:00'), weir.is_final('f', timestamptz '2020-01-01 00:01:00.000001'), weir.is_final('later', timestamptz '2020-01-01 00:01:00'), weir.is_final('later', timestamptz '2020-01-01 00:00:00');
INSERT INTO ev SELECT i % 3, timestamptz '2020-01-01' + i * interval '7 s' FROM generate_series(11, 1200) i;
SELECT weir.wait_for(), weir.checkpoint();
SELECT * FROM differ();
-- a single row in a window is none with HAVING count(*) > 1
INSERT INTO ev VALUES (1, '2020-01-01 04:00'), (2, '2020-01-01 04:00'), (2, '2020-01-01 04:00');
INSERT INTO ev VALUES (1, '2020-01-01 09:00');
SELECT weir.wait_for(), weir.checkpoint();
SELECT * FROM differ();
SELECT k, n FROM many WHERE window_end = '2020-01-01 04:01';

-- plans: the heap alone; the option counts at once, for prepared statements too
EXPLAIN (COSTS OFF) SELECT * FROM f;
CREATE INDEX ON f (k);
PREPARE last AS SELECT max(window_end) FROM f;
SET plan_cache_mode = force_generic_plan;
EXECUTE last;
SET enable_seqscan = off;
SET enable_bitmapscan = off;
EXPLAIN (COSTS OFF) SELECT * FROM f WHERE k = 1 AND window_end = '2020-01-01 04:01';
RESET enable_seqscan;
RESET enable_bitmapscan;
ALTER MATERIALIZED VIEW f SET (emit = live);
EXECUTE last;
EXPLAIN (COSTS OFF) SELECT * FROM f;
SELECT count(*) FROM (TABLE f EXCEPT ALL SELECT window_start, window_end, k, count(*) FROM ev, tumble(ts, '1 minute') GROUP BY 1, 2, 3) d;
ALTER MATERIALIZED VIEW f SET (emit = final);
EXECUTE last;
RESET plan_cache_mode;
-- in one statement with live rows of another view, in a join, in COPY
SELECT live.n AS live, f.n AS final FROM live LEFT JOIN f USING (window_end) WHERE window_end > '2020-01-01 04:00' ORDER BY 1, 2;
COPY (SELECT * FROM f WHERE window_end = '2020-01-01 04:01' ORDER BY k) TO stdout;

-- a view in whatever state
SELECT weir.pause('f');
INSERT INTO ev VALUES (1, '2020-01-02 00:00');
SELECT count(*) FROM f WHERE window_end = '2020-01-01 09:01';
SELECT weir.resume('f');
SELECT weir.wait_for(), weir.checkpoint();
SELECT * FROM differ();
REFRESH MATERIALIZED VIEW f;
SELECT weir.wait_for(), weir.checkpoint();
SELECT * FROM differ() WHERE view = 'f';
REFRESH MATERIALIZED VIEW f WITH NO DATA;
SELECT * FROM f;
REFRESH MATERIALIZED VIEW f;
SELECT weir.wait_for(), weir.checkpoint();
SELECT * FROM differ() WHERE view = 'f';

-- timestamp
CREATE TABLE plain (k int, ts timestamp) USING stream WITH (event_time = ts, watermark_delay = '0 s');
CREATE MATERIALIZED VIEW p USING continuous WITH (emit = final) AS
  SELECT window_end, count(*) AS n FROM plain, tumble(ts, '1 minute') GROUP BY 1;
INSERT INTO plain VALUES (1, '2020-01-01 00:00:30'), (2, '2020-01-01 00:05:00');
SELECT weir.wait_for('p'), weir.checkpoint();
SELECT *, weir.is_final('p', window_end) FROM p;
SELECT weir.is_final('p', timestamp '2020-01-01 00:05'), weir.is_final('p', timestamp '2020-01-01 00:05:00.000001');

-- retention of final rows goes by W; live rows are not its business
ALTER MATERIALIZED VIEW f SET (retention = '1 hour', emit = live);
INSERT INTO ev VALUES (5, '2020-01-02 01:59'), (1, '2020-01-02 02:00'), (2, '2020-01-02 02:01');
INSERT INTO ev VALUES (3, '2020-01-02 02:30');
SELECT weir.wait_for(), weir.checkpoint();
DO $$ BEGIN FOR i IN 1 .. 1000 LOOP EXIT WHEN NOT EXISTS (SELECT FROM f WHERE window_end < '2020-01-02 01:29:50'); PERFORM pg_sleep(0.01); END LOOP; END $$;
SELECT window_end, k, n, weir.is_final('f', window_end) FROM f ORDER BY 1, 2;
-- a window exactly as old stays
INSERT INTO ev VALUES (4, '2020-01-02 03:01:10');
SELECT weir.wait_for(), weir.checkpoint();
DO $$ BEGIN FOR i IN 1 .. 1000 LOOP EXIT WHEN NOT EXISTS (SELECT FROM f WHERE window_end < '2020-01-02 02:01'); PERFORM pg_sleep(0.01); END LOOP; END $$;
SELECT min(window_end) FROM f;
ALTER MATERIALIZED VIEW f RESET (retention);

RESET search_path;
DROP SCHEMA emit_final CASCADE;
