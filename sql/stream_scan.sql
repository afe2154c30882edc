--
-- Reading a stream: chunks skipped by event time, parallel scans, ANALYZE, VACUUM
--
SET timezone = 'UTC';
SET datestyle = 'ISO';
CREATE FUNCTION plan_of(query text) RETURNS SETOF text LANGUAGE plpgsql AS
$$
DECLARE
  line text;
BEGIN
  FOR line IN EXECUTE
    'EXPLAIN (ANALYZE, COSTS off, TIMING off, SUMMARY off, BUFFERS off) ' || query
  LOOP
    -- the server's versions differ in how they print rows and parameters
    line := regexp_replace(line, 'rows=(\d+)\.00', 'rows=\1');
    IF line ~ 'Stream Scan|Seq Scan|Chunks|One-Time|Workers L' THEN
      RETURN NEXT line;
    END IF;
  END LOOP;
END
$$;

-- 40 chunks of one hour each
CREATE TABLE s (a int, ts timestamptz, t text) USING stream WITH (event_time = ts);
DO $$
BEGIN
  FOR h IN 0..39 LOOP
    INSERT INTO s SELECT h * 60 + m, timestamptz '2026-01-01' +
      (h * 60 + m) * interval '1 min', 'text ' || m FROM generate_series(0, 59) m;
    COMMIT;
  END LOOP;
END $$;
CREATE TABLE o AS SELECT * FROM s;
SELECT plan_of('SELECT * FROM s');
SELECT plan_of('SELECT a FROM s WHERE t = ''text 1''');
SELECT plan_of($$SELECT a FROM s WHERE ts >= '2026-01-01 10:00' AND ts < '2026-01-01 12:00'$$);
SELECT plan_of($$SELECT a FROM s WHERE ts > '2026-01-01 10:59' AND ts <= '2026-01-01 12:00'$$);
SELECT plan_of($$SELECT a FROM s WHERE ts = '2026-01-01 10:30'$$);
SELECT plan_of($$SELECT a FROM s WHERE ts BETWEEN '2026-01-01 10:30' AND '2026-01-01 10:31'$$);
SELECT plan_of($$SELECT a FROM s WHERE '2026-01-02 14:00' < ts$$);
SELECT plan_of($$SELECT a FROM s WHERE ts > '2026-01-02' AND ts < '2026-01-01'$$);
-- other types, infinities, NULL, stable functions
SELECT plan_of($$SELECT a FROM s WHERE ts >= date '2026-01-02'$$);
SELECT plan_of($$SELECT a FROM s WHERE ts < date '5874897-01-01'$$);
SELECT plan_of($$SELECT a FROM s WHERE ts >= timestamp '2026-01-02'$$);
SELECT plan_of($$SELECT a FROM s WHERE ts < 'infinity'$$);
SELECT plan_of($$SELECT a FROM s WHERE ts < '-infinity'$$);
SELECT plan_of($$SELECT a FROM s WHERE ts > 'infinity'$$);
SELECT plan_of($$SELECT a FROM s WHERE ts > (SELECT NULL::timestamptz)$$);
SELECT plan_of($$SELECT a FROM s WHERE ts > now()$$);
SELECT plan_of($$SELECT a FROM s WHERE ts > clock_timestamp()$$);
-- not conditions on the event time alone
SELECT plan_of($$SELECT a FROM s WHERE ts >= '2026-01-02' OR a = 1$$);
SELECT plan_of($$SELECT a FROM s WHERE ts <> '2026-01-02'$$);
SELECT plan_of($$SELECT a FROM s WHERE ts + interval '1 day' > '2026-01-02'$$);
-- parameters: of a prepared statement, of a subplan that is run again
PREPARE q(timestamptz) AS SELECT a FROM s WHERE ts >= $1;
SET plan_cache_mode = force_generic_plan;
SELECT plan_of($$EXECUTE q('2026-01-02 15:00')$$);
SELECT plan_of($$EXECUTE q(NULL)$$);
RESET plan_cache_mode;
SELECT g, (SELECT count(*) FROM s WHERE ts > g) AS s, (SELECT count(*) FROM o WHERE ts > g) AS o
  FROM generate_series(timestamptz '2026-01-01 12:30', '2026-01-03', '12 hours') g;
-- all columns, some, none, the row, system columns
SELECT * FROM s WHERE ts = '2026-01-01 10:30';
SELECT t FROM s WHERE ts = '2026-01-01 10:30';
SELECT s FROM s WHERE ts = '2026-01-01 10:30';
SELECT count(*) FROM s WHERE ts >= '2026-01-02';
SELECT tableoid::regclass, ctid = (SELECT ctid FROM s WHERE a = 630) FROM s
  WHERE ts = '2026-01-01 10:30';
-- a time zone that sets its clocks: the same rows as without pruning
SET timezone = 'Europe/Berlin';
SELECT count(*) FROM s WHERE ts >= date '2026-01-02' AND ts < timestamp '2026-01-02 05:30';
SELECT count(*) FROM o WHERE ts >= date '2026-01-02' AND ts < timestamp '2026-01-02 05:30';
SET timezone = 'UTC';
-- backwards
BEGIN;
DECLARE c SCROLL CURSOR FOR SELECT a FROM s
  WHERE ts >= '2026-01-01 10:58' AND ts < '2026-01-01 11:02';
FETCH ALL FROM c;
FETCH BACKWARD 3 FROM c;
FETCH 2 FROM c;
FETCH ABSOLUTE 1 FROM c;
MOVE LAST FROM c;
FETCH BACKWARD ALL FROM c;
DECLARE c2 SCROLL CURSOR FOR SELECT a FROM s WHERE a < 2 OR a > 2398;
FETCH LAST FROM c2;
FETCH PRIOR FROM c2;
FETCH PRIOR FROM c2;
FETCH FIRST FROM c2;
FETCH PRIOR FROM c2;
FETCH NEXT FROM c2;
COMMIT;
-- own rows, written and not
BEGIN;
INSERT INTO s VALUES (-1, '2026-01-01 10:30', 'own');
SAVEPOINT a;
INSERT INTO s VALUES (-2, '2026-01-01 10:30', 'own'), (-3, '2026-01-05', 'own');
SELECT a FROM s WHERE ts = '2026-01-01 10:30' ORDER BY a;
SELECT a FROM s WHERE ts > '2026-01-04' ORDER BY a;
ROLLBACK TO a;
SELECT a FROM s WHERE ts = '2026-01-01 10:30' ORDER BY a;
ROLLBACK;
-- a stream that got its event time late, and one of type timestamp
CREATE TABLE l (a int, ts timestamp) USING stream;
INSERT INTO l VALUES (1, '2026-01-01'), (2, NULL);
ALTER TABLE l SET (event_time = ts);
INSERT INTO l VALUES (3, '2026-01-02');
INSERT INTO l VALUES (4, '2026-01-03');
SELECT plan_of($$SELECT a FROM l WHERE ts < '2026-01-02'$$);
SELECT plan_of($$SELECT a FROM l WHERE ts < date '2026-01-03'$$);
SELECT plan_of($$SELECT a FROM l WHERE ts < timestamptz '2026-01-02'$$);
SELECT a FROM l WHERE ts < '2026-01-02';
SELECT a FROM l WHERE ts IS NULL;
DROP TABLE l;

-- parallel
SET min_parallel_table_scan_size = 0;
SET parallel_setup_cost = 0;
SET parallel_tuple_cost = 0;
SET max_parallel_workers_per_gather = 2;
INSERT INTO s SELECT 2400 + i, timestamptz '2026-01-03' + i * interval '1 s', 'more'
  FROM generate_series(1, 50000) i;
INSERT INTO o SELECT * FROM s WHERE a > 2400;
ANALYZE s;
SELECT regexp_replace(line, ' \(actual.*', '') AS plan_of
  FROM plan_of($$SELECT count(*) FROM s WHERE ts < '2026-01-01 02:00'$$) line
  WHERE line !~ 'Workers';
SELECT count(*), sum(a) FROM s;
SELECT weir.watermark('s') = max(ts) - interval '1 min' AS same FROM s;
SELECT count(*), sum(a) FROM s WHERE ts > '2026-01-03 06:00';
SELECT count(*), sum(a) FROM o WHERE ts > '2026-01-03 06:00';
-- rows of several commands in one chunk, rows of an outer subtransaction
BEGIN;
INSERT INTO s VALUES (-1, '2026-01-06', 'own');
INSERT INTO s VALUES (-2, '2026-01-06', 'own');
SELECT count(*) FROM s;
SELECT count(*) FROM s WHERE ts > '2026-01-05';
INSERT INTO s VALUES (-3, '2026-01-06', 'own');
SAVEPOINT a;
SELECT count(*) FROM s;
SELECT count(*) FROM s WHERE ts > '2026-01-05';
ROLLBACK;
CREATE TABLE c USING stream WITH (event_time = ts) AS SELECT a, ts FROM s WHERE a % 2 = 0;
SELECT count(*), sum(a) FROM c;
SELECT count(*), sum(a) FROM o WHERE a % 2 = 0;
DROP TABLE c;
RESET min_parallel_table_scan_size;
RESET parallel_setup_cost;
RESET parallel_tuple_cost;
RESET max_parallel_workers_per_gather;

-- columns that only the target list needs, whatever is made of it
(SELECT date_trunc('hour', ts), a, length(t) FROM s WHERE ts < '2026-01-02' EXCEPT ALL
 SELECT date_trunc('hour', ts), a, length(t) FROM o WHERE ts < '2026-01-02') UNION ALL
(SELECT date_trunc('hour', ts), a, length(t) FROM o WHERE ts < '2026-01-02' EXCEPT ALL
 SELECT date_trunc('hour', ts), a, length(t) FROM s WHERE ts < '2026-01-02');
SELECT count(a + 1) > 0 AS a, count(t || '') > 0 AS t, count(s) > 0 AS row FROM s WHERE ts < '2026-01-02';

-- what ANALYZE learns, and what VACUUM leaves of it
SELECT reltuples FROM pg_class WHERE relname = 's';
SELECT attname, null_frac, n_distinct, round(correlation::numeric, 1) AS correlation
  FROM pg_stats WHERE tablename = 's' AND attname <> 't' ORDER BY 1;
VACUUM s;
SELECT reltuples FROM pg_class WHERE relname = 's';
SELECT relfrozenxid AS before FROM pg_class WHERE relname = 's' \gset
VACUUM (FREEZE, DISABLE_PAGE_SKIPPING) s;
SELECT age(relfrozenxid) < age(:'before'::xid) AS advanced, reltuples
  FROM pg_class WHERE relname = 's';
(TABLE s EXCEPT ALL TABLE o) UNION ALL (TABLE o EXCEPT ALL TABLE s);
-- deleted chunks of an aborted transaction are gone, live ones stay
BEGIN;
INSERT INTO s SELECT 0, '2026-01-01', 'rolled back' FROM generate_series(1, 50000);
ROLLBACK;
SELECT pg_relation_size('s') AS before \gset
VACUUM s;
INSERT INTO s SELECT 0, '2026-01-01', 'again' FROM generate_series(1, 40000);
SELECT pg_relation_size('s') <= :before AS reuses_the_space;
INSERT INTO o SELECT 0, '2026-01-01', 'again' FROM generate_series(1, 40000);
VACUUM FULL s;
SELECT reltuples FROM pg_class WHERE relname = 's';
(TABLE s EXCEPT ALL TABLE o) UNION ALL (TABLE o EXCEPT ALL TABLE s);
SELECT weir.watermark('s');
DROP TABLE s, o;
DROP FUNCTION plan_of;
