-- session() and count_window() in ordinary queries, against the same windows
-- written by hand with lag() and row_number().
SET timezone = 'UTC';
CREATE SCHEMA batch_windows;
SET search_path = batch_windows, public;

-- how many rows two queries do not have in common
CREATE FUNCTION differ(a text, b text) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE n bigint;
BEGIN
  EXECUTE format('SELECT count(*) FROM ((%1$s EXCEPT ALL %2$s) UNION ALL (%2$s EXCEPT ALL %1$s)) d',
                 '(' || a || ')', '(' || b || ')') INTO n;
  RETURN n;
END $$;
-- SQLSTATE, message and hint of a query that is refused
CREATE FUNCTION refused(query text, OUT state text, OUT message text, OUT hint text)
LANGUAGE plpgsql AS $$
BEGIN
  EXECUTE query;
  state := 'none';
EXCEPTION WHEN OTHERS THEN
  GET STACKED DIAGNOSTICS state = RETURNED_SQLSTATE, message = MESSAGE_TEXT, hint = PG_EXCEPTION_HINT;
END $$;

-- does a line of the plan look like this?
CREATE FUNCTION plans(pattern text, query text) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE line text;
BEGIN
  FOR line IN EXECUTE 'EXPLAIN (VERBOSE) ' || query LOOP
    IF line ~ pattern THEN RETURN true; END IF;
  END LOOP;
  RETURN false;
END $$;

---- sessions ----

CREATE TABLE t (id int PRIMARY KEY, k text, j int, v int, ts timestamptz, lts timestamp);
-- nothing yet
SELECT k, window_start, count(*) FROM t, session(ts, '5 s') GROUP BY k, window_start;

-- touching, a microsecond more, ties, a null key
INSERT INTO t VALUES
  (1, 'touch', 0, 1, '2026-01-01 00:00:00'), (2, 'touch', 0, 2, '2026-01-01 00:00:05'),
  (3, 'touch', 0, 4, '2026-01-01 00:00:10'),
  (4, 'apart', 0, 1, '2026-01-01 00:00:00'), (5, 'apart', 0, 2, '2026-01-01 00:00:05.000001'),
  (6, 'ties', 0, 1, '2026-01-01 00:00:03'), (7, 'ties', 0, 2, '2026-01-01 00:00:03'),
  (8, 'ties', 0, 4, '2026-01-01 00:00:07'), (9, 'ties', 0, 8, '2026-01-01 00:00:07'),
  (10, NULL, 0, 1, '2026-01-01 00:00:00'), (11, NULL, 0, NULL, '2026-01-01 00:00:01');
SELECT k, window_start, window_end, count(*), sum(v) FROM t, session(ts, '5 s')
GROUP BY k, window_start, window_end ORDER BY k, window_start;
SELECT window_start, window_end, count(*), sum(v) FROM t, session(ts, '5 s')
GROUP BY window_start, window_end ORDER BY window_start;
SELECT k, window_end - window_start AS length, array_agg(v ORDER BY v DESC) FROM t, session(ts, '5 s')
GROUP BY k, window_end, window_start HAVING window_end > '2026-01-01 00:00:08' ORDER BY window_end DESC, k;
-- a condition on the key goes down to the table
SELECT plans($$Filter: .*k = 'ties'$$,
  $$SELECT k, window_start, sum(v) FROM t, session(ts, '5 s') GROUP BY k, window_start HAVING k = 'ties'$$);
SELECT plans('Filter: .*window_start',
  $$SELECT k, window_start, sum(v) FROM t, session(ts, '5 s') GROUP BY k, window_start HAVING window_start > '2026-01-01'$$);

SELECT setseed(0.25);
INSERT INTO t
  SELECT i, (ARRAY['a', 'b', 'c', NULL])[1 + (random() * 3)::int], (random() * 4)::int, (random() * 100)::int, ts, ts
  FROM (SELECT i, timestamptz '2026-02-01' + (random() * 4000)::int * interval '1 s' AS ts
        FROM generate_series(100, 1099) i) x;
UPDATE t SET lts = ts;
CREATE VIEW numbered AS
  SELECT *, sum(fresh) OVER (PARTITION BY k ORDER BY ts) AS n,
         sum(kfresh) OVER (PARTITION BY k, j % 2 ORDER BY ts) AS kn, sum(nfresh) OVER (ORDER BY ts) AS nn
  FROM (SELECT *,
          CASE WHEN ts <= lag(ts) OVER (PARTITION BY k ORDER BY ts) + interval '5 s' THEN 0 ELSE 1 END AS fresh,
          CASE WHEN ts <= lag(ts) OVER (PARTITION BY k, j % 2 ORDER BY ts) + interval '5 s' THEN 0 ELSE 1 END AS kfresh,
          CASE WHEN ts <= lag(ts) OVER (ORDER BY ts) + interval '5 s' THEN 0 ELSE 1 END AS nfresh FROM t) x;

SELECT differ('SELECT k, window_start, window_end, count(*), sum(v) FROM t, session(ts, ''5 s'') GROUP BY k, window_start, window_end',
              'SELECT k, min(ts), max(ts) + interval ''5 s'', count(*), sum(v) FROM numbered GROUP BY k, n');
SELECT differ('SELECT k, window_start, count(*) FROM t, session(ts, ''5 s'') GROUP BY 1, 2',
              'SELECT k, min(ts), count(*) FROM numbered GROUP BY k, n');
SELECT differ('SELECT window_end, k, count(*) FROM t, session(gap => ''5 s'', ts => t.ts) GROUP BY 1, 2',
              'SELECT max(ts) + interval ''5 s'', k, count(*) FROM numbered GROUP BY k, n');
SELECT differ('SELECT window_end, window_start FROM t, session(ts, ''5 s'') GROUP BY 1, 2',
              'SELECT max(ts) + interval ''5 s'', min(ts) FROM numbered GROUP BY nn');
-- an expression as key, and one over keys
SELECT differ('SELECT upper(k) || (j % 2), e, s, sum(v) FROM t x CROSS JOIN session(x.ts, ''5 s'') AS w(s, e) GROUP BY k, j % 2, s, e',
              'SELECT upper(k) || (j % 2), max(ts) + interval ''5 s'', min(ts), sum(v) FROM numbered GROUP BY k, j % 2, kn');
-- an expression over the window as one more key
SELECT differ('SELECT k, date_trunc(''minute'', window_start), count(*) FROM t, session(ts, ''5 s'') GROUP BY k, window_start, date_trunc(''minute'', window_start)',
              'SELECT k, date_trunc(''minute'', min(ts)), count(*) FROM numbered GROUP BY k, n');
-- aggregates of all kinds, also over the window itself and over whole rows
SELECT differ('SELECT k, window_start, count(DISTINCT j), count(*) FILTER (WHERE v > 50), array_agg(v ORDER BY v, id), max(ts - window_start),
                 sum(extract(epoch FROM window_end - ts)), percentile_disc(0.5) WITHIN GROUP (ORDER BY v), count(t), count(w), grouping(k),
                 array_agg(w ORDER BY v)::text
               FROM t LEFT JOIN session(ts, ''5 s'') w ON true GROUP BY k, window_start',
              'SELECT k, ws, count(DISTINCT j), count(*) FILTER (WHERE v > 50), array_agg(v ORDER BY v, id), max(ts - ws),
                 sum(extract(epoch FROM we - ts)), percentile_disc(0.5) WITHIN GROUP (ORDER BY v), count(*), count(*), 0,
                 array_agg(row(ws, we) ORDER BY v)::text
               FROM (SELECT *, min(ts) OVER (PARTITION BY k, n) AS ws, max(ts) OVER (PARTITION BY k, n) + interval ''5 s'' AS we FROM numbered) x GROUP BY k, n, ws');
-- WHERE comes first
SELECT differ('SELECT k, window_start, window_end, count(*) FROM t, session(ts, ''5 s'') WHERE v < 50 GROUP BY 1, 2, 3',
              'SELECT k, min(ts), max(ts) + interval ''5 s'', count(*) FROM (
                 SELECT *, sum(fresh) OVER (PARTITION BY k ORDER BY ts) AS n FROM (
                   SELECT *, CASE WHEN ts <= lag(ts) OVER (PARTITION BY k ORDER BY ts) + interval ''5 s'' THEN 0 ELSE 1 END AS fresh
                   FROM t WHERE v < 50) x) y GROUP BY k, n');
-- timestamp; the same in another TimeZone, across a change of clocks
SELECT differ('SELECT k, window_start, window_end, count(*) FROM t, session(lts, ''5 s'') GROUP BY 1, 2, 3',
              'SELECT k, min(lts), max(lts) + interval ''5 s'', count(*) FROM numbered GROUP BY k, n');
SET timezone = 'America/New_York';
SELECT window_start, window_end, count(*)
FROM (VALUES (timestamptz '2026-03-07 12:00'), ('2026-03-08 12:30'), ('2026-03-09 12:31')) x(ts), session(ts, '1 day')
GROUP BY 1, 2 ORDER BY 1;
SET timezone = 'UTC';

-- joins
CREATE TABLE d (j int PRIMARY KEY, name text);
INSERT INTO d SELECT i, 'name ' || i FROM generate_series(0, 3) i;
CREATE VIEW joined AS
  SELECT *, sum(fresh) OVER (PARTITION BY name ORDER BY ts) AS n FROM (
    SELECT *, CASE WHEN ts <= lag(ts) OVER (PARTITION BY name ORDER BY ts) + interval '5 s' THEN 0 ELSE 1 END AS fresh
    FROM t LEFT JOIN d USING (j)) x;
SELECT differ('SELECT name, window_start, window_end, count(*), sum(v) FROM t LEFT JOIN d ON d.j = t.j, session(t.ts, ''5 s'') GROUP BY 1, 2, 3',
              'SELECT name, min(ts), max(ts) + interval ''5 s'', count(*), sum(v) FROM joined GROUP BY name, n');
SELECT differ('SELECT name, window_start, window_end, sum(j), count(d.j) FROM (t CROSS JOIN session(ts, ''5 s'')) x(id, k, j, v, ts, lts) LEFT JOIN d USING (j) GROUP BY 1, 2, 3',
              'SELECT name, min(ts), max(ts) + interval ''5 s'', sum(j), count(name) FROM joined GROUP BY name, n');
SELECT differ('SELECT d.*, window_start, sum(v) FROM d JOIN (t JOIN session(ts, ''5 s'') ON v >= 0) USING (j) GROUP BY d.j, window_start',
              'SELECT j, name, min(ts), sum(v) FROM joined WHERE v >= 0 AND name IS NOT NULL GROUP BY name, j, n');

-- above, below and beside: subqueries, CTEs, views, set operations, sublinks
CREATE VIEW sessions AS
  SELECT k, window_start, window_end, count(*) AS n, sum(v) AS s FROM t, session(ts, '5 s') GROUP BY k, window_start, window_end;
CREATE VIEW by_hand AS
  SELECT k, min(ts) AS window_start, max(ts) + interval '5 s' AS window_end, count(*) AS n, sum(v) AS s FROM numbered GROUP BY k, n;
SELECT differ('TABLE sessions', 'TABLE by_hand');
DO $$ BEGIN EXECUTE 'CREATE VIEW again AS ' || pg_get_viewdef('sessions'); END $$;
SELECT differ('TABLE again', 'TABLE by_hand');
SELECT differ('WITH w AS (TABLE sessions), m AS MATERIALIZED (SELECT * FROM w WHERE n > 1) SELECT * FROM m UNION ALL SELECT * FROM w',
              'SELECT * FROM by_hand WHERE n > 1 UNION ALL TABLE by_hand');
SELECT differ('WITH x AS (SELECT * FROM t WHERE v < 50), y AS (SELECT count(*) AS c FROM x)
               SELECT k, window_start, (SELECT c FROM y), (SELECT count(*) FROM x WHERE x.k = z.k) FROM x AS z, session(ts, ''5 s'') WHERE EXISTS (SELECT FROM y WHERE c > z.v) GROUP BY k, window_start',
              'SELECT k, window_start, (SELECT count(*) FROM t WHERE v < 50), (SELECT count(*) FROM t WHERE v < 50 AND t.k = z.k) FROM (SELECT * FROM t WHERE v < 50) z, session(ts, ''5 s'') GROUP BY k, window_start');
SELECT differ('SELECT * FROM sessions o WHERE n = (SELECT max(count(*)) OVER () FROM t, session(ts, ''5 s'') WHERE t.k = o.k GROUP BY window_start LIMIT 1)',
              'SELECT * FROM by_hand o WHERE n = (SELECT max(n) FROM by_hand i WHERE i.k = o.k)');
SELECT differ('SELECT g, x.* FROM (VALUES (interval ''2 s''), (''5 s'')) gaps(g), LATERAL (SELECT k, window_start, count(*) FROM t, session(ts, g) WHERE v % 2 = extract(second FROM g)::int % 2 GROUP BY k, window_start) x',
              'SELECT interval ''2 s'', k, window_start, count(*) FROM t, session(ts, ''2 s'') WHERE v % 2 = 0 GROUP BY k, window_start UNION ALL
               SELECT interval ''5 s'', k, window_start, count(*) FROM t, session(ts, ''5 s'') WHERE v % 2 = 1 GROUP BY k, window_start');
SELECT differ('SELECT k, ARRAY(SELECT window_start FROM t i, session(ts, ''5 s'') WHERE i.k = o.k GROUP BY window_start ORDER BY window_start DESC) FROM (SELECT DISTINCT k FROM t) o',
              'SELECT k, CASE WHEN k IS NULL THEN ''{}'' ELSE array_agg(window_start ORDER BY window_start DESC) END FROM by_hand GROUP BY k');
SELECT differ('SELECT DISTINCT k, rank() OVER (PARTITION BY k ORDER BY count(*) DESC) FROM t, session(ts, ''5 s'') GROUP BY k, window_start',
              'SELECT DISTINCT k, rank() OVER (PARTITION BY k ORDER BY n DESC) FROM by_hand');
-- sublinks with references to keys, windows and other columns, at several depths
SELECT differ('SELECT k, window_start, sum((SELECT max(j) FROM d WHERE d.j < t.j)), count(*) FILTER (WHERE t.j IN (SELECT j FROM d WHERE d.j > t.v % 3)), (SELECT sum(t.v) FROM d WHERE d.j = 0)
               FROM t, session(ts, ''5 s'') GROUP BY k, window_start, window_end
               HAVING EXISTS (SELECT FROM d WHERE d.j > count(t.v) % 5 AND window_end > (SELECT min(ts) FROM t i WHERE i.k = t.k AND i.ts < window_end))',
              'SELECT k, min(ts), sum((SELECT max(j) FROM d WHERE d.j < x.j)), count(*) FILTER (WHERE x.j IN (SELECT j FROM d WHERE d.j > x.v % 3)), sum(v)
               FROM numbered x WHERE k IS NOT NULL GROUP BY k, n HAVING EXISTS (SELECT FROM d WHERE d.j > count(x.v) % 5)');
SELECT differ('SELECT j, window_start, count(*) FROM t FULL JOIN d USING (j), session(coalesce(ts, ''2025-01-01''), ''5 s'') GROUP BY j, window_start',
              'SELECT j, window_start, count(*) FROM (SELECT coalesce(t.j, d.j) AS j, coalesce(ts, ''2025-01-01'') AS ts FROM t FULL JOIN d ON t.j = d.j) x, session(ts, ''5 s'') GROUP BY j, window_start');
SELECT differ('WITH RECURSIVE r(k, w, i) AS (SELECT k, window_start, 1 FROM t, session(ts, ''5 s'') GROUP BY 1, 2 UNION ALL SELECT k, w, i + 1 FROM r WHERE i < 3) TABLE r',
              'SELECT k, window_start, i FROM by_hand, generate_series(1, 3) i');
SELECT differ('WITH RECURSIVE r(k, w, i) AS (SELECT ''a'', timestamptz ''2026-01-01'', 1 UNION ALL (SELECT r.k, window_start, i + 1 FROM r, t, session(ts, ''5 s'') WHERE i < 2 AND t.k = r.k GROUP BY r.k, window_start, i)) TABLE r',
              'SELECT ''a'', timestamptz ''2026-01-01'', 1 UNION ALL SELECT k, window_start, 2 FROM by_hand WHERE k = ''a''');
SELECT differ('SELECT t.*, window_start FROM t, session(ts, ''5 s'') GROUP BY id, window_start', 'SELECT *, ts FROM t');
SELECT differ('SELECT ''x'' AS c, k, window_start, string_agg(''x'', ''''), (random() * 0)::int FROM t, session(ts, ''5 s'') GROUP BY 1, 2, 3, (random() * 0)::int',
              'SELECT ''x'', k, window_start, repeat(''x'', n::int), 0 FROM by_hand');
SELECT k, window_start, count(*)
FROM (VALUES (1.0, timestamptz '2026-01-01'), (1.00, '2026-01-01 00:00:04'), (1, '2026-01-01 00:00:08')) x(k, ts), session(ts, '5 s') GROUP BY 1, 2;
-- sessions of sessions, and of tumbling windows
SELECT differ('SELECT w.window_start, sum(n) FROM sessions s, session(s.window_start, ''1 min'') w GROUP BY w.window_start',
              'SELECT w.window_start, sum(n) FROM by_hand s, session(s.window_start, ''1 min'') w GROUP BY w.window_start');
SELECT differ('SELECT k, m.window_start, s.window_start, s.window_end FROM t, tumble(ts, ''1 min'') m, session(ts, ''5 s'') s GROUP BY 1, 2, 3, 4',
              'SELECT k, m, s.window_start, s.window_end FROM (SELECT k, ts, date_trunc(''minute'', ts) AS m FROM t) x, session(ts, ''5 s'') s GROUP BY 1, 2, 3, 4');

-- parameters: custom and generic plans, plpgsql
PREPARE p(interval, int) AS SELECT count(*) FROM (SELECT k, window_start FROM t, session(ts, $1) WHERE v < $2 GROUP BY k, window_start) x;
SET plan_cache_mode = force_custom_plan;
EXECUTE p('1 hour', 1000);
SET plan_cache_mode = force_generic_plan;
EXECUTE p('1 hour', 1000);
SELECT refused('EXECUTE p(''1 month'', 1000)');
SELECT refused('EXECUTE p(NULL, 1000)');
RESET plan_cache_mode;
CREATE FUNCTION how_many(gap interval) RETURNS bigint LANGUAGE plpgsql STABLE AS $$
BEGIN RETURN (SELECT count(*) FROM (SELECT FROM t, session(ts, gap) GROUP BY k, window_start) x); END $$;
SELECT how_many('1 hour'), how_many('1 hour');

-- statements that write
CREATE TABLE kept AS SELECT k, window_start, window_end, count(*) AS n, sum(v) AS s FROM t, session(ts, '5 s') GROUP BY k, window_start, window_end;
INSERT INTO kept SELECT k, window_start, window_end, count(*), sum(v) FROM t, session(ts, '5 s') GROUP BY k, window_start, window_end;
SELECT differ('TABLE kept', 'TABLE by_hand UNION ALL TABLE by_hand');
UPDATE kept SET n = -x.n FROM (SELECT k, window_start, count(*) AS n FROM t, session(ts, '5 s') GROUP BY k, window_start) x
  WHERE kept.k = x.k AND kept.window_start = x.window_start;
DELETE FROM kept WHERE n < 0;
SELECT bool_and(k IS NULL), count(*) > 0 AS some FROM kept;
CREATE MATERIALIZED VIEW stored AS TABLE sessions;
REFRESH MATERIALIZED VIEW stored;
SELECT differ('TABLE stored', 'TABLE by_hand');
DECLARE c SCROLL CURSOR WITH HOLD FOR SELECT k, window_start FROM t, session(ts, '5 s') WHERE k = 'touch' GROUP BY k, window_start;
FETCH ALL c;
FETCH BACKWARD ALL c;
CLOSE c;

-- rights are those of the relations, row security holds
CREATE ROLE regress_window_reader;
GRANT USAGE ON SCHEMA batch_windows TO regress_window_reader;
GRANT SELECT (k, ts, v) ON t TO regress_window_reader;
GRANT SELECT ON sessions TO regress_window_reader;
CREATE TABLE own (k text, ts timestamptz);
INSERT INTO own VALUES ('mine', '2026-01-01'), ('theirs', '2026-01-01 00:00:01');
ALTER TABLE own ENABLE ROW LEVEL SECURITY;
CREATE POLICY mine ON own USING (k = 'mine');
GRANT SELECT ON own TO regress_window_reader;
SET ROLE regress_window_reader;
SELECT k, window_start, sum(v) FROM t, session(ts, '5 s') GROUP BY k, window_start HAVING k = 'apart';
SELECT k, n FROM sessions WHERE k = 'touch';
SELECT window_start, count(*) FROM own, session(ts, '5 s') GROUP BY window_start;
SELECT j, window_start FROM t, session(ts, '5 s') GROUP BY j, window_start;
RESET ROLE;
REVOKE EXECUTE ON FUNCTION session(timestamptz, interval) FROM PUBLIC;
SET ROLE regress_window_reader;
SELECT window_start, count(*) FROM own, session(ts, '5 s') GROUP BY window_start;
RESET ROLE;
GRANT EXECUTE ON FUNCTION session(timestamptz, interval) TO PUBLIC;

-- refusals
\x
SELECT * FROM refused('SELECT * FROM t, session(ts, ''5 s'')');
SELECT * FROM refused('SELECT k, count(*) FROM t, session(ts, ''5 s'') GROUP BY k');
SELECT * FROM refused('SELECT DISTINCT window_start FROM t, session(ts, ''5 s'')');
SELECT * FROM refused('SELECT k, count(*) FROM t, session(ts, ''5 s'') GROUP BY k, window_start + interval ''1 s''');
SELECT * FROM refused('SELECT count(*) FROM t, session(ts, ''5 s'') GROUP BY window_start, window_start + v * interval ''1 s''');
SELECT * FROM refused('SELECT window_start FROM t, session(ts, ''5 s'') WHERE window_start > ''2026-01-01'' GROUP BY window_start');
SELECT * FROM refused('SELECT window_start FROM t JOIN session(ts, ''5 s'') ON window_end > ''2026-01-01'' GROUP BY window_start');
SELECT * FROM refused('SELECT s FROM (t CROSS JOIN session(ts, ''5 s'')) x(id, k, j, v, ts, lts, s) WHERE s > ''2026-01-01'' GROUP BY s');
SELECT * FROM refused('SELECT window_start, m FROM t, session(ts, ''5 s''), date_trunc(''minute'', window_start) m GROUP BY 1, 2');
SELECT * FROM refused('SELECT window_start FROM d LEFT JOIN (t CROSS JOIN session(ts, ''5 s'')) ON t.j = d.j GROUP BY window_start');
SELECT * FROM refused('SELECT window_start FROM t LEFT JOIN session(ts, ''5 s'') ON v > 0 GROUP BY window_start');
SELECT * FROM refused('SELECT a.window_start FROM t, session(ts, ''5 s'') a, session(ts, ''6 s'') b GROUP BY 1');
SELECT * FROM refused('SELECT window_start FROM t, ROWS FROM (session(ts, ''5 s''), generate_series(1, 1)) GROUP BY 1');
SELECT * FROM refused('SELECT window_start FROM t, session(ts, ''5 s'') WITH ORDINALITY GROUP BY 1');
SELECT * FROM refused('SELECT k, window_start FROM t, session(ts, ''5 s'') GROUP BY ROLLUP (k), window_start');
SELECT * FROM refused('SELECT window_start, unnest(ARRAY[1, 2]) FROM t, session(ts, ''5 s'') GROUP BY 1, 2');
SELECT * FROM refused('SELECT session(ts, ''5 s'') FROM t');
SELECT * FROM refused('SELECT window_start FROM t, session(ts::date, ''5 s'') GROUP BY 1');
SELECT * FROM refused('SELECT window_start FROM t, session(ts, v * interval ''1 s'') GROUP BY 1');
SELECT * FROM refused('SELECT window_start FROM t, session(ts + random() * interval ''1 s'', ''1 s'') GROUP BY 1');
SELECT * FROM refused('SELECT window_start FROM t, session(ts, ''1 month'') GROUP BY 1');
SELECT * FROM refused('SELECT window_start FROM t, session(ts, ''0'') GROUP BY 1');
SELECT * FROM refused('SELECT window_start FROM t, session(ts, ''-1 s'') GROUP BY 1');
SELECT * FROM refused('SELECT window_start FROM t, session(ts, NULL) GROUP BY 1');
SELECT * FROM refused('UPDATE t SET v = 0 FROM session(now(), ''5 s'')');
SELECT * FROM refused('SELECT window_start FROM (VALUES (timestamptz ''-infinity'')) x(ts), session(ts, ''5 s'') GROUP BY 1');
SELECT * FROM refused('SELECT window_start FROM (VALUES (timestamptz ''infinity'')) x(ts), session(ts, ''5 s'') GROUP BY 1');
SELECT * FROM refused('SELECT window_end FROM (VALUES (timestamptz ''294276-12-31''), (''4713-01-01 BC'')) x(ts), session(ts, ''1000 days'') GROUP BY 1');
SELECT * FROM refused('SELECT window_start FROM (VALUES (timestamptz ''2026-01-01''), (NULL)) x(ts), session(ts, ''5 s'') GROUP BY 1');
SELECT * FROM refused('SELECT window_end FROM (VALUES (timestamptz ''2026-01-01''), (NULL)) x(ts), session(ts, ''5 s'') GROUP BY 1');
-- a function that is inlined comes too late to be seen
CREATE FUNCTION inlined() RETURNS SETOF timestamptz LANGUAGE sql STABLE
  AS $$ SELECT window_start FROM t, session(ts, '5 s') WHERE k = 'touch' GROUP BY window_start $$;
SELECT * FROM refused('SELECT * FROM inlined()');
ALTER FUNCTION inlined() VOLATILE;
SELECT * FROM inlined();
\x
-- the two ends of time
SELECT window_start, window_end FROM (VALUES (timestamptz '294276-12-31'), ('4713-01-01 BC')) x(ts), session(ts, '5 s') GROUP BY 1, 2 ORDER BY 1;

---- count windows ----

CREATE TABLE s (k text, v int, w int, ts timestamptz) USING stream WITH (event_time = ts);
SELECT k, window_start, count(*) FROM s, count_window(3) GROUP BY k, window_start;
-- a transaction that was prepared lies before those that overtook it
BEGIN;
INSERT INTO s VALUES ('a', 4, 1, '2026-01-01'), ('b', 5, 1, '2026-01-01'), ('a', 6, 1, '2026-01-01');
PREPARE TRANSACTION 'weir_batch_windows';
INSERT INTO s VALUES ('a', 1, 1, '2026-01-03'), ('b', 2, 1, '2026-01-02');
INSERT INTO s VALUES ('a', 3, 1, '2026-01-01');
COMMIT PREPARED 'weir_batch_windows';
SELECT k, window_start, window_end, count(*), array_agg(v ORDER BY v), min(ts) FROM s, count_window(2)
GROUP BY k, window_start, window_end ORDER BY k, window_start;
SELECT window_start, window_end, array_agg(v ORDER BY v) FROM s, count_window(4) GROUP BY window_start, window_end ORDER BY 1;
-- after WHERE; rows that come last get the last numbers
INSERT INTO s VALUES ('a', 7, 1, '2026-01-01');
SELECT window_start, window_end, array_agg(v ORDER BY v) FROM s, count_window(2) WHERE v NOT IN (2, 4) GROUP BY window_start, window_end ORDER BY 1;
SELECT window_end, count(*) FROM s, count_window(2) GROUP BY window_end ORDER BY 1;
-- sliding: one row for each window, whether its columns tell it from others or not
SELECT window_start, window_end, array_agg(v ORDER BY v) FROM s, count_window(4, 2) GROUP BY window_start, window_end ORDER BY 1, 2;
SELECT window_start, array_agg(v ORDER BY v) FROM s, count_window(3, 1) GROUP BY window_start ORDER BY 1, 2;
SELECT k, window_start, window_end, count(*) FROM s, count_window(3, 1) WHERE k = 'b' GROUP BY k, window_start, window_end ORDER BY 2, 3, 4;
SELECT window_end, count(*) FROM s, count_window(3, 2) GROUP BY window_end ORDER BY 1, 2;
SELECT plans('count_window_end', 'SELECT k, window_start, window_end, sum(v) FROM s, count_window(3) GROUP BY k, window_start, window_end');
SELECT plans('count_windows', 'SELECT k, window_start, sum(v) FROM s, count_window(3, 2) GROUP BY k, window_start');

-- own rows: written, held back by a savepoint, of several commands
BEGIN;
INSERT INTO s VALUES ('a', 8, 1, '2026-01-01');
SAVEPOINT x;
INSERT INTO s VALUES ('a', 9, 1, '2026-01-01');
SELECT window_start, array_agg(v ORDER BY v) FROM s, count_window(3) GROUP BY window_start ORDER BY 1;
SAVEPOINT y;
INSERT INTO s VALUES ('a', 100, 1, '2026-01-01');
ROLLBACK TO y;
INSERT INTO s VALUES ('a', 10, 1, '2026-01-01');
RELEASE x;
INSERT INTO s VALUES ('b', 11, 1, '2026-01-01');
SELECT window_start, array_agg(v ORDER BY v) FROM s, count_window(3) GROUP BY window_start ORDER BY 1;
DECLARE c CURSOR FOR SELECT window_start, array_agg(v ORDER BY v) FROM s, count_window(3) GROUP BY window_start ORDER BY 1;
INSERT INTO s VALUES ('b', 12, 1, '2026-01-01');
FETCH ALL c;
COMMIT;
-- a command that reads what it writes
INSERT INTO s SELECT k, 12 + row_number() OVER (ORDER BY k, window_start), count(*), '2026-01-01'
FROM s, count_window(5) GROUP BY k, window_start;
SELECT count(*), max(v) FROM s;

-- random: many transactions, long ones too
TRUNCATE s;
SELECT setseed(0.75);
CREATE SEQUENCE n;
DO $$
BEGIN
  FOR i IN 1..60 LOOP
    INSERT INTO s SELECT CASE WHEN random() < 0.8 THEN 'k' || (random() * 5)::int END, nextval('n'), (random() * 100)::int,
                         timestamptz '2026-01-01' + random() * interval '1 day'
      FROM generate_series(1, CASE WHEN i % 20 = 0 THEN 1500 ELSE (random() * 10)::int END);
    IF i % 7 <> 0 THEN COMMIT; ELSE ROLLBACK; END IF;
  END LOOP;
END $$;
-- what count_window(size, slide) says, by hand; v is in log order
CREATE FUNCTION by_hand(size bigint, slide bigint)
RETURNS TABLE (k text, window_start bigint, window_end bigint, n bigint, s bigint, m int, a int[]) LANGUAGE sql VOLATILE AS $$
  WITH numbered AS (SELECT *, row_number() OVER (PARTITION BY k ORDER BY v) - 1 AS i, count(*) OVER (PARTITION BY k) AS total FROM s WHERE w < 80)
  SELECT k, greatest(no * slide - size, 0), CASE WHEN no * slide <= total THEN no * slide END, count(*), sum(w), min(v), array_agg(v ORDER BY v)
  FROM numbered, generate_series(greatest(i / slide - 1, 1), (i + size) / slide + 2) no
  WHERE i >= no * slide - size AND i < no * slide
  GROUP BY k, no, total
$$;
SELECT size, slide, differ(
  format('SELECT k, window_start, window_end, count(*), sum(w), min(v), array_agg(v ORDER BY v) FROM s, count_window(%s, %s) WHERE w < 80 GROUP BY k, window_start, window_end', size, slide),
  format('SELECT * FROM by_hand(%s, %s)', size, slide))
FROM (VALUES (1, 1), (7, 7), (7, 1), (7, 3), (12, 4), (100, 99), (100000, 50000)) x(size, slide);
SELECT differ('SELECT k, window_start, window_end, count(*), sum(w), min(v), array_agg(v ORDER BY v) FROM s, count_window(size => 9) WHERE w < 80 GROUP BY k, window_start, window_end',
              'SELECT * FROM by_hand(9, 9)');
SELECT differ('SELECT window_start, count(DISTINCT w), count(*) FILTER (WHERE w > 10) FROM s, count_window(50) GROUP BY window_start HAVING window_start > 100',
              'SELECT i / 50 * 50, count(DISTINCT w), count(*) FILTER (WHERE w > 10) FROM (SELECT *, row_number() OVER (ORDER BY v) - 1 AS i FROM s) x GROUP BY 1 HAVING i / 50 * 50 > 100');
-- through subqueries, CTEs and views
CREATE VIEW few AS SELECT w * 1 AS w, v AS number, k AS name FROM s WHERE w < 80 ORDER BY ts, v + 1;
CREATE VIEW fewer WITH (security_barrier) AS SELECT * FROM few WHERE name IS NOT NULL;
CREATE VIEW counted AS SELECT name, window_start, window_end, count(*), sum(w), min(number), array_agg(number ORDER BY number)
  FROM few, count_window(7, 3) GROUP BY name, window_start, window_end;
SELECT differ('TABLE counted', 'SELECT * FROM by_hand(7, 3)');
SELECT differ('SELECT name, window_start, window_end, count(*), sum(w), min(number), array_agg(number ORDER BY number) FROM fewer, count_window(7, 3) GROUP BY name, window_start, window_end',
              'SELECT * FROM by_hand(7, 3) WHERE k IS NOT NULL');
SELECT differ('WITH x AS (SELECT k, v FROM s WHERE w < 80), y AS (SELECT x.*, 1 FROM x) SELECT k, window_start, (SELECT max(v) FROM x), count(*) FROM y CROSS JOIN count_window(7) GROUP BY k, window_start
               UNION ALL SELECT k, window_start, 0, count(*) FROM s, count_window(7, 3) WHERE w < 80 GROUP BY k, window_start',
              'SELECT k, window_start, (SELECT max(v) FROM s WHERE w < 80), n FROM by_hand(7, 7) UNION ALL SELECT k, window_start, 0, n FROM by_hand(7, 3)');
SELECT differ('WITH o AS (SELECT * FROM s WHERE w < 80) SELECT x.* FROM (VALUES (''k1''), (''k2'')) l(k), LATERAL (SELECT o.k, count(*), window_start FROM o, count_window(7) WHERE o.k = l.k GROUP BY o.k, window_start) x',
              'SELECT k, n, window_start FROM by_hand(7, 7) WHERE k IN (''k1'', ''k2'')');
-- the hidden number of a window shows nowhere
SELECT differ('SELECT x FROM (SELECT k, window_start, count(*) FROM s, count_window(7, 3) WHERE w < 80 GROUP BY k, window_start) x', 'SELECT (k, window_start, n) FROM by_hand(7, 3)');
SELECT count(*) FROM (SELECT DISTINCT k FROM s WHERE k IS NOT NULL) x
WHERE (k, 7) IN (SELECT k, count(*) FROM s, count_window(7, 3) GROUP BY k, window_start)
  AND EXISTS (SELECT FROM s, count_window(7, 3) WHERE s.k = x.k GROUP BY window_start HAVING count(*) > 6);
-- VACUUM FULL moves rows, a parallel plan mixes them
CREATE TABLE before AS SELECT k, window_start, window_end, array_agg(v ORDER BY v) AS a FROM s, count_window(10) GROUP BY k, window_start, window_end;
VACUUM FULL s;
SELECT differ('SELECT k, window_start, window_end, array_agg(v ORDER BY v) FROM s, count_window(10) GROUP BY k, window_start, window_end', 'TABLE before');
SET parallel_setup_cost = 0; SET parallel_tuple_cost = 0; SET min_parallel_table_scan_size = 0;
SELECT differ('SELECT k, window_start, window_end, array_agg(v ORDER BY v) FROM s, count_window(10) GROUP BY k, window_start, window_end', 'TABLE before');
SELECT differ('TABLE sessions', 'TABLE by_hand');
RESET parallel_setup_cost; RESET parallel_tuple_cost; RESET min_parallel_table_scan_size;
-- parameters
PREPARE q(bigint, bigint) AS SELECT count(*) FROM (SELECT k, window_start FROM s, count_window($1, $2) GROUP BY k, window_start) x;
SET plan_cache_mode = force_generic_plan;
EXECUTE q(100000, NULL);
EXECUTE q(100000, 100000);
\x
SELECT * FROM refused('EXECUTE q(2, 3)');
SELECT * FROM refused('EXECUTE q(0, 0)');
SELECT * FROM refused('EXECUTE q(2, 0)');
SELECT * FROM refused('EXECUTE q(NULL, 1)');
RESET plan_cache_mode;
SELECT weir.count_window_start(NULL, 2), weir.count_window_end(3, NULL, 2), weir.count_window_end(NULL, 3, 2), weir.count_window_end(4, 4, 2);
SELECT * FROM weir.count_windows(NULL, 1, 2, 1);
SELECT * FROM weir.count_windows(9223372036854775807, NULL, 9223372036854775807, 9223372036854775807);
-- refusals
SELECT * FROM refused('SELECT window_start FROM s, count_window(0) GROUP BY 1');
SELECT * FROM refused('SELECT window_start FROM s, count_window(2, 3) GROUP BY 1');
SELECT * FROM refused('SELECT window_start FROM s, count_window(2, -1) GROUP BY 1');
SELECT * FROM refused('SELECT window_start FROM s, count_window(NULL) GROUP BY 1');
SELECT * FROM refused('SELECT window_start FROM s, count_window(w) GROUP BY 1');
SELECT * FROM refused('SELECT * FROM s, count_window(2)');
SELECT * FROM refused('SELECT count_window(2)');
SELECT * FROM refused('SELECT k FROM s, count_window(2) GROUP BY k');
SELECT * FROM refused('SELECT window_start FROM s, count_window(2) WHERE window_end IS NOT NULL GROUP BY 1');
SELECT * FROM refused('SELECT x.window_start FROM s, count_window(2), session(ts, ''1 s'') x GROUP BY 1');
SELECT * FROM refused('SELECT window_start FROM t, count_window(2) GROUP BY 1');
SELECT * FROM refused('SELECT window_start FROM count_window(2) GROUP BY 1');
SELECT * FROM refused('SELECT window_start FROM s, t, count_window(2) GROUP BY 1');
SELECT * FROM refused('SELECT window_start FROM s a, s b, count_window(2) GROUP BY 1');
SELECT * FROM refused('SELECT window_start FROM s LEFT JOIN t ON t.k = s.k, count_window(2) GROUP BY 1');
SELECT * FROM refused('SELECT window_start FROM (SELECT DISTINCT k FROM s) x, count_window(2) GROUP BY 1');
SELECT * FROM refused('SELECT window_start FROM (SELECT k FROM s UNION ALL SELECT k FROM s) x, count_window(2) GROUP BY 1');
SELECT * FROM refused('SELECT window_start FROM (SELECT * FROM s ORDER BY ts LIMIT 10) x, count_window(2) GROUP BY 1');
SELECT * FROM refused('WITH x AS MATERIALIZED (SELECT * FROM s) SELECT window_start FROM x, count_window(2) GROUP BY 1');
SELECT * FROM refused('SELECT window_start, count(x) FROM (SELECT * FROM s) x, count_window(2) GROUP BY 1');
SELECT * FROM refused('SELECT w.window_start FROM before, count_window(2) w GROUP BY 1');
CREATE TABLE parts (k text, ts timestamptz) PARTITION BY LIST (k);
SELECT * FROM refused('SELECT window_start FROM parts, count_window(2) GROUP BY 1');
SELECT * FROM refused('SELECT weir.log_order(''t''::regclass, ctid) FROM t');
SELECT * FROM refused('SELECT weir.log_order(''s''::regclass, ''(0,0)'')');
SELECT * FROM refused('SELECT weir.log_order(''s''::regclass, ''(2147483648,1)'')');
\x
-- views: the same text, the same rows
CREATE FUNCTION as_view(query text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
  EXECUTE 'DROP MATERIALIZED VIEW IF EXISTS mv';
  EXECUTE 'CREATE MATERIALIZED VIEW mv USING continuous ' || query;
END $$;
SET client_min_messages = warning;
\set q 'SELECT k, window_start, window_end, count(*) AS n, sum(w) AS s, max(v) AS m FROM s, session(ts, ''5 min'') WHERE w < 80 GROUP BY k, window_start, window_end'
SELECT as_view('WITH (allowed_lateness = infinity) AS ' || :'q');
SELECT weir.wait_for('mv');
SELECT differ('TABLE mv', :'q');
\set q 'SELECT window_end, count(*) AS n FROM s, session(ts, ''1 s'') GROUP BY window_end HAVING count(*) > 1'
SELECT as_view('WITH (allowed_lateness = infinity) AS ' || :'q');
SELECT weir.wait_for('mv');
SELECT differ('TABLE mv', :'q');
\set q 'SELECT k, window_start, window_end, count(*) AS n, sum(w) AS s, max(v) AS m, array_agg(v) AS a FROM s, count_window(9) WHERE w < 80 GROUP BY k, window_start, window_end'
SELECT as_view('AS ' || :'q');
SELECT weir.wait_for('mv');
SELECT differ('TABLE mv', replace(:'q', 'array_agg(v)', 'array_agg(v ORDER BY v)'));
\set q 'SELECT k, window_start, window_end, count(*) AS n, sum(w) AS s, max(v) AS m FROM s, count_window(7, 3) GROUP BY k, window_start, window_end'
SELECT as_view('AS ' || :'q');
SELECT weir.wait_for('mv');
SELECT differ('TABLE mv', :'q');
\set q 'SELECT window_start, count(*) AS n, sum(w) AS s, max(v) AS m FROM s, count_window(5, 1) GROUP BY window_start'
SELECT as_view('AS ' || :'q');
SELECT weir.wait_for('mv');
SELECT differ('TABLE mv', :'q');

SET client_min_messages = warning;
DROP SCHEMA batch_windows CASCADE;
DROP OWNED BY regress_window_reader;
DROP ROLE regress_window_reader;
