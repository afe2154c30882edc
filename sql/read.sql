-- Reading continuous views: final rows from the heap, live rows from the
-- state, in every kind of plan.
SET timezone = 'UTC';
SET enable_seqscan = off;

CREATE TABLE ev (k bigint, g text, v int, ts timestamptz NOT NULL)
  USING stream WITH (event_time = ts, watermark_delay = '0 seconds');
CREATE MATERIALIZED VIEW w USING continuous AS
  SELECT window_start, window_end, k, count(*) AS n, sum(v) AS s
  FROM ev, tumble(ts, '1 minute') GROUP BY window_start, window_end, k;
CREATE INDEX w_k ON w (k);
CREATE INDEX w_start ON w (window_start);
CREATE MATERIALIZED VIEW kg USING continuous AS
  SELECT k, g, count(*) AS n, sum(v) AS s, array_agg(v) AS a FROM ev GROUP BY k, g;
CREATE MATERIALIZED VIEW big USING continuous AS
  SELECT k, count(*) AS n FROM ev GROUP BY k HAVING count(*) > 7;
CREATE MATERIALIZED VIEW done USING continuous WITH (emit = final) AS
  SELECT window_start, count(*) AS n FROM ev, tumble(ts, '1 minute') GROUP BY window_start;
CREATE VIEW w_batch AS
  SELECT window_start, window_end, k, count(*) AS n, sum(v) AS s
  FROM ev, tumble(ts, '1 minute') GROUP BY window_start, window_end, k;

-- three minutes, one transaction each; the first two become final
INSERT INTO ev SELECT nullif(i % 20, 0), 'g' || i % 3, i, '2026-01-01 00:00:00+00'::timestamptz + i * interval '0.5 s'
  FROM generate_series(0, 119) i;
INSERT INTO ev SELECT nullif(i % 20, 0), 'g' || i % 3, i, '2026-01-01 00:00:00+00'::timestamptz + i * interval '0.5 s'
  FROM generate_series(120, 239) i;
INSERT INTO ev SELECT nullif(i % 20, 0), 'g' || i % 3, i, '2026-01-01 00:00:00+00'::timestamptz + i * interval '0.5 s'
  FROM generate_series(240, 299) i;
SELECT weir.wait_for();
SELECT weir.checkpoint();

-- final rows are the heap's; TABLESAMPLE reads those alone
SELECT count(*) FROM w TABLESAMPLE system (100);
SELECT count(*), sum(n), sum(s) FROM w;
(TABLE w EXCEPT ALL TABLE w_batch) UNION ALL (TABLE w_batch EXCEPT ALL TABLE w);
SELECT window_start, count(*) FROM w GROUP BY 1 ORDER BY 1;
SELECT count(*) FROM w WHERE weir.is_final('w', window_end);
SELECT count(*), sum(n) FROM big;
SELECT * FROM done ORDER BY 1;

-- lookups
CREATE FUNCTION live_lines(query text) RETURNS SETOF text LANGUAGE plpgsql AS $$
DECLARE line text;
BEGIN
  FOR line IN EXECUTE 'EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF, SUMMARY OFF) ' || query LOOP
    IF line ~ 'Live (Lookup|Groups|Rows)' THEN
      RETURN NEXT regexp_replace(btrim(line), '\$0|\(InitPlan 1\)\.col1', 'initplan');
    END IF;
  END LOOP;
END $$;
EXPLAIN (COSTS OFF) SELECT * FROM w WHERE k = 7;
SELECT live_lines('SELECT * FROM w WHERE k = 7');
SELECT * FROM w WHERE k = 7 ORDER BY window_start;
SELECT live_lines('SELECT * FROM w WHERE 7::smallint = k AND n > 0');
SELECT live_lines('SELECT * FROM w WHERE k IS NULL');
SELECT count(*) FROM w WHERE k IS NULL;
SELECT live_lines($$SELECT * FROM kg WHERE k = 7 AND g = 'g1'$$);
SELECT live_lines($$SELECT * FROM kg WHERE g = 'g1'::varchar AND k IS NULL$$);
SELECT k, g, n FROM kg WHERE g = 'g1'::varchar AND k IS NULL;
SELECT k, g, n FROM kg WHERE g = 'g1' AND k = 7;
SELECT count(*) FROM w WHERE k = NULL;
SELECT live_lines('SELECT * FROM w WHERE k = (SELECT max(v) FROM ev WHERE v < 8)');
SELECT count(*), sum(n) FROM w WHERE k = (SELECT max(v) FROM ev WHERE v < 8);
-- not a lookup: not all keys, not an equality, another type's equality
SELECT live_lines($$SELECT * FROM kg WHERE g = 'g1'$$);
SELECT live_lines('SELECT * FROM w WHERE k = 7.0');
SELECT live_lines('SELECT * FROM w WHERE k < 2');
SELECT live_lines($$SELECT * FROM w WHERE window_start = '2026-01-01 00:02:00+00'$$);
SELECT count(*) FROM w WHERE window_start = '2026-01-01 00:02:00+00';

-- prepared, generic
SET plan_cache_mode = force_generic_plan;
PREPARE one(bigint) AS SELECT window_start, n, s FROM w WHERE k = $1 ORDER BY 1;
EXPLAIN (COSTS OFF) EXECUTE one(7);
EXECUTE one(7);
EXECUTE one(NULL);
EXECUTE one(1000);
RESET plan_cache_mode;

-- joins: parameterized, hashed, merged; semi and anti; lateral; twice
CREATE TABLE dim (k bigint PRIMARY KEY, name text);
INSERT INTO dim SELECT i, 'name ' || i FROM generate_series(1, 10) i;
ANALYZE dim;
SET enable_hashjoin = off; SET enable_mergejoin = off; SET enable_material = off;
SELECT live_lines('SELECT * FROM dim d JOIN w ON w.k = d.k WHERE d.k < 4') LIMIT 1;
SELECT count(*), sum(n), sum(s) FROM dim d JOIN w ON w.k = d.k WHERE d.k < 4;
SELECT count(*) FROM dim d LEFT JOIN LATERAL (SELECT * FROM w WHERE w.k = d.k ORDER BY n LIMIT 2) x ON true;
RESET enable_hashjoin; SET enable_nestloop = off;
SELECT count(*), sum(n), sum(s) FROM dim d JOIN w ON w.k = d.k WHERE d.k < 4;
SET enable_hashjoin = off; RESET enable_mergejoin;
SELECT count(*), sum(n), sum(s) FROM dim d JOIN w ON w.k = d.k WHERE d.k < 4;
RESET enable_hashjoin; RESET enable_nestloop; RESET enable_material;
SELECT count(*) FROM dim d WHERE EXISTS (SELECT 1 FROM w WHERE w.k = d.k);
SELECT count(*) FROM dim d WHERE NOT EXISTS (SELECT 1 FROM w WHERE w.k = d.k AND w.n > 6);
SELECT count(*) FROM w a JOIN w b USING (window_start, k);
SELECT d.k, (SELECT sum(n) FROM w WHERE w.k = d.k) FROM dim d ORDER BY 1 LIMIT 2;

-- order
EXPLAIN (COSTS OFF) SELECT * FROM w ORDER BY k LIMIT 3;
SELECT k, n FROM w ORDER BY k LIMIT 3;
SELECT min(k), max(k), min(window_start), max(window_start) FROM w;
SELECT window_start, k FROM w WHERE k > 17 ORDER BY window_start DESC, k LIMIT 4;

-- cursors, backwards too
BEGIN;
DECLARE c SCROLL CURSOR FOR SELECT k, n FROM w WHERE k IN (3, 4) ORDER BY window_start, k;
FETCH ALL FROM c;
FETCH BACKWARD 2 FROM c;
FETCH FIRST FROM c;
DECLARE d SCROLL CURSOR FOR SELECT k FROM kg WHERE k = 5 AND g = 'g2';
FETCH FORWARD 2 FROM d;
FETCH BACKWARD 2 FROM d;
FETCH FORWARD 2 FROM d;
DECLARE h CURSOR WITH HOLD FOR SELECT count(*) FROM w;
COMMIT;
FETCH h;
CLOSE h;

-- rows as wholes, system columns
SELECT w FROM w WHERE k = 7 AND window_start > '2026-01-01 00:01:30+00';
SELECT (w).n FROM w WHERE k = 7 AND window_start > '2026-01-01 00:01:30+00';
SELECT tableoid::regclass, ctid IS NOT NULL AS ctid FROM w WHERE k = 7 ORDER BY window_start DESC LIMIT 1;
SELECT xmin FROM kg;

-- statements that lock or change rows take v as the source
CREATE TABLE acc (k bigint PRIMARY KEY, n bigint, note text);
INSERT INTO acc SELECT i, 0 FROM generate_series(1, 5) i;
UPDATE acc SET n = x.n FROM (SELECT k, sum(n) AS n FROM w GROUP BY k) x WHERE x.k = acc.k;
SELECT k, n FROM acc ORDER BY k;
UPDATE acc SET n = kg.n, note = kg.g FROM kg WHERE kg.k = acc.k AND kg.g = 'g1';
SELECT k, n, note FROM acc ORDER BY k;
UPDATE acc SET note = r.w::text FROM (SELECT k, big FROM big) r(k, w) WHERE r.k = acc.k;
SELECT k, note FROM acc ORDER BY k;
SET enable_seqscan = on;
EXPLAIN (COSTS OFF) SELECT acc.k FROM acc, kg WHERE kg.k = acc.k AND kg.g = 'g1' FOR UPDATE OF acc;
SET enable_seqscan = off;
SELECT acc.k, kg.n FROM acc, kg WHERE kg.k = acc.k AND kg.g = 'g1' ORDER BY 1 FOR UPDATE OF acc;
SELECT acc.k FROM acc WHERE EXISTS (SELECT 1 FROM w WHERE w.k = acc.k AND n = 6) ORDER BY 1 FOR SHARE;
MERGE INTO acc USING (SELECT * FROM big WHERE k IS NOT NULL) big ON big.k = acc.k
  WHEN MATCHED THEN UPDATE SET n = big.n
  WHEN NOT MATCHED THEN INSERT VALUES (big.k, big.n, 'new');
SELECT count(*), sum(n) FROM acc;
DELETE FROM acc USING kg WHERE kg.k = acc.k AND kg.g = 'g0' AND kg.n > 4;
SELECT count(*) FROM acc;
INSERT INTO acc SELECT k, n FROM big WHERE k IS NOT NULL ON CONFLICT (k) DO UPDATE SET n = 0;
SELECT count(*), sum(n) FROM acc;
UPDATE acc SET n = 1 FROM w WHERE w.k = acc.k AND w.tableoid = 'w'::regclass;
SELECT * FROM w FOR UPDATE;
DELETE FROM w;
CREATE FUNCTION live_k() RETURNS SETOF bigint LANGUAGE sql STABLE AS 'SELECT k FROM w';
SELECT count(*) FROM live_k();
SELECT l FROM acc, live_k() l WHERE l = acc.k FOR UPDATE OF acc;

-- one image for a whole statement, and what is not in it
WITH a AS MATERIALIZED (SELECT sum(n) AS n FROM w), b AS MATERIALIZED (SELECT sum(n) AS n FROM w WHERE k IS NOT NULL)
SELECT a.n - b.n AS nulls, (SELECT sum(n) FROM w WHERE k IS NULL) AS same FROM a, b;

-- parallel: v by one process, the rest by many
CREATE TABLE facts (k bigint);
INSERT INTO facts SELECT i % 30 FROM generate_series(1, 20000) i;
ANALYZE facts;
SET parallel_setup_cost = 0; SET parallel_tuple_cost = 0; SET min_parallel_table_scan_size = 0;
SET max_parallel_workers_per_gather = 2; SET enable_seqscan = on;
CREATE FUNCTION scan_lines(query text) RETURNS SETOF text LANGUAGE plpgsql AS $$
DECLARE line text;
BEGIN
  FOR line IN EXECUTE 'EXPLAIN (COSTS OFF) ' || query LOOP
    IF line ~ 'Gather|Append|Scan' THEN
      RETURN NEXT line;
    END IF;
  END LOOP;
END $$;
SELECT scan_lines('SELECT count(*), sum(n) FROM facts JOIN kg USING (k)');
SELECT scan_lines('SELECT count(*) FROM facts WHERE k = (SELECT max(k) FROM kg)');
SELECT scan_lines('SELECT count(*), sum(n) FROM kg');
SELECT count(*) FROM facts WHERE k = (SELECT max(k) FROM kg);
SELECT count(*), sum(n) FROM facts JOIN w USING (k);
SELECT count(*), sum(n) FROM w;
SET parallel_leader_participation = off;
SELECT count(*), sum(n) FROM facts JOIN kg USING (k);
SELECT count(*), sum(n) FROM w;
RESET parallel_leader_participation; RESET parallel_setup_cost; RESET parallel_tuple_cost;
RESET min_parallel_table_scan_size; RESET max_parallel_workers_per_gather;

-- more live rows than work_mem
INSERT INTO ev SELECT i, 'many', i, '2026-01-01 00:02:30+00' FROM generate_series(1001, 7000) i;
SELECT weir.wait_for();
SET work_mem = '64kB';
SELECT count(*), sum(n), sum(s), sum(a[1]) FROM kg WHERE g = 'many';
SET enable_hashjoin = off; SET enable_mergejoin = off;
SELECT count(*), sum(kg.s) FROM generate_series(900, 1200) i JOIN kg ON kg.k = i AND kg.g = 'many';
SELECT count(*), sum(s) FROM generate_series(900, 1200) i, LATERAL (SELECT s FROM kg WHERE kg.k = i.i AND kg.g = 'many') x;
RESET enable_hashjoin; RESET enable_mergejoin;
BEGIN;
DECLARE c SCROLL CURSOR FOR SELECT k FROM kg WHERE g = 'many' AND k % 2000 = 0;
MOVE ALL FROM c;
SELECT count(*) FROM kg;
SAVEPOINT x;
FETCH BACKWARD 1 FROM c \gset before_
ROLLBACK TO x;
FETCH FORWARD 1 FROM c;
MOVE BACKWARD ALL FROM c;
MOVE ALL FROM c;
COMMIT;
RESET work_mem;

-- rights: SELECT on the view is enough, and live rows are made by its owner
CREATE ROLE regress_weir_owner;
CREATE ROLE regress_weir_reader;
GRANT USAGE, CREATE ON SCHEMA public TO regress_weir_owner;
GRANT SELECT, TRIGGER ON ev TO regress_weir_owner;
SET ROLE regress_weir_owner;
CREATE FUNCTION who(anyelement) RETURNS text LANGUAGE plpgsql STABLE AS
  $$ BEGIN RETURN current_user || ' ' || current_setting('search_path'); END $$;
REVOKE ALL ON FUNCTION who(anyelement) FROM PUBLIC;
CREATE MATERIALIZED VIEW owned USING continuous AS
  SELECT g, who(count(*)) AS who FROM ev GROUP BY g;
RESET ROLE;
SELECT weir.wait_for('owned');
SET ROLE regress_weir_reader;
SELECT * FROM owned;
RESET ROLE;
GRANT SELECT ON owned TO regress_weir_reader;
SET ROLE regress_weir_reader;
SELECT * FROM owned ORDER BY g;
SELECT count(*) FROM ev;
SELECT current_user;
RESET ROLE;

-- a plain view, a materialized view and a function on top
CREATE VIEW top AS SELECT k, sum(n) AS n FROM w GROUP BY k;
SELECT * FROM top WHERE k = 7;
CREATE MATERIALIZED VIEW frozen AS SELECT sum(n) AS n FROM w;
SELECT * FROM frozen;
DO $$ DECLARE r record; c int := 0; BEGIN FOR r IN SELECT * FROM w WHERE k < 3 LOOP c := c + 1; END LOOP; RAISE NOTICE '% rows', c; END $$;

-- the size the planner knows of
CREATE FUNCTION estimate(query text) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE j json;
BEGIN
  EXECUTE 'EXPLAIN (FORMAT JSON) ' || query INTO j;
  RETURN (j->0->'Plan'->>'Plan Rows')::bigint;
END $$;
SELECT estimate('TABLE kg') BETWEEN 3000 AND 12000 AS near;

DROP MATERIALIZED VIEW frozen, owned;
DROP VIEW top, w_batch;
DROP FUNCTION live_k();
DROP MATERIALIZED VIEW w, kg, big, done;
DROP TABLE ev, dim, acc, facts;
DROP FUNCTION live_lines(text), estimate(text), who(anyelement);
REVOKE ALL ON SCHEMA public FROM regress_weir_owner;
DROP ROLE regress_weir_owner, regress_weir_reader;
