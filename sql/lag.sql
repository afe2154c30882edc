-- What weir.views says of a view that is behind, and PostgreSQL's statistics of a
-- stream.
CREATE TABLE lg (k int, t text) USING stream;
CREATE MATERIALIZED VIEW lg_v USING continuous AS SELECT k, count(*) AS n FROM lg GROUP BY k;
CREATE MATERIALIZED VIEW lg_w USING continuous AS SELECT count(*) AS n FROM lg;
INSERT INTO lg SELECT i % 3, 'event ' || i FROM generate_series(1, 100) i;
SELECT weir.wait_for();
CREATE FUNCTION lg_shown(OUT view text, OUT state text, OUT events bigint, OUT bytes bool, OUT behind bool, OUT builds bigint)
  RETURNS SETOF record LANGUAGE sql AS $$
  SELECT v.view::text, v.state, lag_events, lag_bytes > 0, lag > interval '0', build_total
  FROM weir.views v WHERE v.view::text LIKE 'lg%' ORDER BY 1 $$;
SELECT * FROM lg_shown();

SELECT weir.pause('lg_v');
SELECT weir.wait_for('lg_w');
DO $$
BEGIN
  WHILE (SELECT v.state FROM weir.views v WHERE v.view = 'lg_v'::regclass) <> 'paused' LOOP
    PERFORM pg_sleep(0.01);
  END LOOP;
END $$;
INSERT INTO lg SELECT i % 3, 'event ' || i FROM generate_series(1, 1000) i;
INSERT INTO lg SELECT i % 3, 'event ' || i FROM generate_series(1, 200) i;
BEGIN;
INSERT INTO lg SELECT i % 3, 'event ' || i FROM generate_series(1, 5000) i;
ROLLBACK;
SELECT weir.wait_for('lg_w');
SELECT * FROM lg_shown();
SELECT sum(n) FROM lg_v;
-- one that has not begun with its history
BEGIN;
CREATE MATERIALIZED VIEW lg_b USING continuous AS SELECT sum(k) AS n FROM lg;
SELECT weir.pause('lg_b');
COMMIT;
SELECT * FROM lg_shown() WHERE view <> 'lg_b';
SELECT * FROM lg_b;
SELECT weir.resume('lg_v'), weir.resume('lg_b');
SELECT weir.wait_for();
SELECT * FROM lg_shown();
SELECT (SELECT sum(n) FROM lg_v), (SELECT n FROM lg_b);

-- rolled-back rows count as inserted, as they do in a table
SELECT pg_stat_force_next_flush();
SELECT n_tup_ins, n_tup_upd, n_tup_del FROM pg_stat_user_tables WHERE relname = 'lg';
SELECT count(*) FROM lg;
SELECT pg_stat_force_next_flush();
SELECT seq_scan > 0 AS scans, seq_tup_read >= 1300 AS read FROM pg_stat_user_tables WHERE relname = 'lg';
DROP FUNCTION lg_shown;
DROP TABLE lg CASCADE;
