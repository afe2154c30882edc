-- The end of a stream: weir.advance_watermark(stream, 'infinity').
SET timezone = 'UTC';
SET datestyle = 'ISO';
SET client_min_messages = warning;
\set SHOW_CONTEXT never
CREATE ROLE se_writer;
CREATE TABLE se (k int, v int, ts timestamptz NOT NULL)
  USING stream WITH (event_time = ts, watermark_delay = '10 seconds');
GRANT SELECT, INSERT ON se TO se_writer;
CREATE MATERIALIZED VIEW se_w USING continuous AS
  SELECT window_start, window_end, k, sum(v) AS s FROM se, tumble(ts, '1 minute') GROUP BY window_start, window_end, k;
CREATE MATERIALIZED VIEW se_l USING continuous WITH (allowed_lateness = '1 hour') AS
  SELECT window_start, window_end, k, sum(v) AS s FROM se, tumble(ts, '1 minute') GROUP BY window_start, window_end, k;
CREATE MATERIALIZED VIEW se_inf USING continuous WITH (allowed_lateness = infinity) AS
  SELECT window_start, window_end, k, sum(v) AS s FROM se, tumble(ts, '1 minute') GROUP BY window_start, window_end, k;
CREATE MATERIALIZED VIEW se_f USING continuous WITH (emit = final, retention = '1 hour') AS
  SELECT window_end, count(*) AS n FROM se, tumble(ts, '1 minute') GROUP BY window_end;
CREATE MATERIALIZED VIEW se_d USING continuous AS
  SELECT date_trunc('day', ts) AS d, count(*) AS n FROM se GROUP BY 1;
CREATE MATERIALIZED VIEW se_k USING continuous AS SELECT k, count(*) AS n FROM se GROUP BY k;
CREATE MATERIALIZED VIEW so_hop USING continuous AS
  SELECT window_start, window_end, k, sum(v) AS s FROM se, hop(ts, '1 minute', '3 minutes') GROUP BY window_start, window_end, k;
CREATE MATERIALIZED VIEW so_cum USING continuous WITH (allowed_lateness = '1 hour') AS
  SELECT window_start, window_end, k, sum(v) AS s FROM se, cumulate(ts, '1 minute', '3 minutes') GROUP BY window_start, window_end, k;
CREATE MATERIALIZED VIEW so_ses USING continuous AS
  SELECT window_start, window_end, k, sum(v) AS s FROM se, session(ts, '30 s') GROUP BY window_start, window_end, k;
CREATE MATERIALIZED VIEW so_count USING continuous AS
  SELECT window_start, window_end, sum(v) AS s FROM se, count_window(4) GROUP BY window_start, window_end;
CREATE FUNCTION batch() RETURNS TABLE (window_start timestamptz, window_end timestamptz, k int, s bigint) LANGUAGE sql AS
  $$ SELECT window_start, window_end, k, sum(v) FROM se, tumble(ts, '1 minute') GROUP BY window_start, window_end, k $$;
INSERT INTO se VALUES (1, 1, '2026-01-01 00:00:10Z'), (2, 2, '2026-01-01 00:00:20Z'), (1, 3, '2026-01-01 00:02:30Z');
SELECT weir.wait_for();

-- its owner's alone, and before commit it is nobody's
\set VERBOSITY sqlstate
SET ROLE se_writer;
SELECT weir.advance_watermark('se', 'infinity');
RESET ROLE;
SELECT weir.advance_watermark('se_w', 'infinity');
SELECT weir.advance_watermark(NULL, 'infinity');
SELECT weir.advance_watermark('se', NULL);
\set VERBOSITY default
BEGIN;
SELECT weir.advance_watermark('se', 'infinity');
ROLLBACK;
BEGIN;
SAVEPOINT a;
SELECT weir.advance_watermark('se', 'infinity');
ROLLBACK TO a;
COMMIT;
SELECT weir.watermark('se');
INSERT INTO se VALUES (2, 4, '2026-01-01 00:02:40Z');
-- the rows of its own transaction come before it
BEGIN;
INSERT INTO se VALUES (3, 5, '2026-01-01 00:02:41Z');
SELECT weir.advance_watermark('se', 'infinity');
INSERT INTO se VALUES (3, 6, '2026-01-01 00:02:42Z');
SELECT weir.advance_watermark('se', 'infinity');
COMMIT;
SELECT weir.advance_watermark('se', 'infinity');
SELECT weir.advance_watermark('se', '2026-02-01Z');

-- every window is final, and shows what the batch query does
SELECT weir.wait_for();
SELECT weir.checkpoint();
SELECT weir.watermark('se'), (SELECT watermark FROM weir.streams WHERE stream = 'se'::regclass) AS streams;
SELECT view, watermark, late, events_in FROM weir.views WHERE view::text ~ '^se' ORDER BY view::text;
SELECT count(*) FROM ((TABLE se_w EXCEPT ALL SELECT * FROM batch()) UNION ALL (SELECT * FROM batch() EXCEPT ALL TABLE se_w)) d;
SELECT count(*) FROM ((TABLE se_l EXCEPT ALL SELECT * FROM batch()) UNION ALL (SELECT * FROM batch() EXCEPT ALL TABLE se_l)) d;
SELECT count(*) FROM ((TABLE se_inf EXCEPT ALL SELECT * FROM batch()) UNION ALL (SELECT * FROM batch() EXCEPT ALL TABLE se_inf)) d;
TABLE se_f ORDER BY window_end;
TABLE se_d;
SELECT bool_and(weir.is_final('se_w', window_end)) AS w, bool_and(weir.is_final('se_l', window_end)) AS l, bool_or(weir.is_final('se_inf', window_end)) AS inf FROM batch();
SELECT weir.is_final('se_w', '294276-12-31 00:00Z'::timestamptz), weir.is_final('se_w', 'infinity'::timestamptz) AS inf, weir.is_final('se_inf', '4713-01-01 00:00Z BC'::timestamptz) AS never;
-- in the heap: nothing is left in memory but what never is final
SELECT view, final_rows, groups FROM weir.views WHERE view::text ~ '^se' ORDER BY view::text;

-- so it is with windows that overlap and sessions; rows are counted as before
CREATE FUNCTION differ() RETURNS TABLE (view text, rows bigint, differ bigint) LANGUAGE plpgsql AS $$
BEGIN
  FOREACH view IN ARRAY '{so_hop,so_cum,so_ses,so_count}'::text[] LOOP
    EXECUTE format('SELECT (SELECT count(*) FROM %1$I), (SELECT count(*) FROM ((TABLE %1$I EXCEPT ALL %2$s) UNION ALL (%2$s EXCEPT ALL TABLE %1$I)) d)',
      view, rtrim(pg_get_viewdef(view::regclass), ';')) INTO rows, differ;
    RETURN NEXT;
  END LOOP;
END $$;
SELECT * FROM differ();
SELECT (SELECT bool_and(weir.is_final('so_hop', window_end)) FROM so_hop) AS hop, (SELECT bool_and(weir.is_final('so_cum', window_end)) FROM so_cum) AS cumulate,
  (SELECT bool_and(weir.is_final('so_ses', window_end)) FROM so_ses) AS session;
SELECT view, watermark, late FROM weir.views WHERE view::text ~ '^so' ORDER BY view::text;
TABLE so_ses ORDER BY k, window_start;
TABLE so_count ORDER BY window_start;

-- no more rows, in any form, until TRUNCATE
DO $$ DECLARE m text; h text; BEGIN
  INSERT INTO se VALUES (4, 7, '2026-01-01 00:03:00Z');
EXCEPTION WHEN object_not_in_prerequisite_state THEN
  GET STACKED DIAGNOSTICS m = MESSAGE_TEXT, h = PG_EXCEPTION_HINT;
  RAISE WARNING '%, %', m, h;
END $$;
\set VERBOSITY sqlstate
SET ROLE se_writer;
INSERT INTO se VALUES (4, 7, '2026-01-01 00:03:00Z');
RESET ROLE;
COPY se FROM stdin (FORMAT csv);
4,7,2026-01-01 00:03:00Z
\.
INSERT INTO se SELECT 4, 7, '2026-01-01 00:03:00Z' FROM generate_series(1, 10);
BEGIN;
TRUNCATE se;
INSERT INTO se VALUES (4, 7, '2026-01-01 00:03:00Z');
ROLLBACK;
INSERT INTO se VALUES (4, 7, '2026-01-01 00:03:00Z');
\set VERBOSITY default
-- nothing inserted is nothing refused
INSERT INTO se SELECT * FROM se WHERE false;
SELECT count(*) FROM se;

-- rebuilt and new views come to the same rows
CREATE MATERIALIZED VIEW se_new USING continuous AS
  SELECT window_start, window_end, k, sum(v) AS s FROM se, tumble(ts, '1 minute') GROUP BY window_start, window_end, k;
REFRESH MATERIALIZED VIEW se_w;
REFRESH MATERIALIZED VIEW so_hop;
REFRESH MATERIALIZED VIEW so_cum;
REFRESH MATERIALIZED VIEW so_ses;
REFRESH MATERIALIZED VIEW so_count;
SELECT weir.wait_for();
SELECT weir.checkpoint();
SELECT * FROM differ();
SELECT count(*) FROM ((TABLE se_w EXCEPT ALL SELECT * FROM batch()) UNION ALL (SELECT * FROM batch() EXCEPT ALL TABLE se_w)) d;
SELECT count(*) FROM ((TABLE se_new EXCEPT ALL SELECT * FROM batch()) UNION ALL (SELECT * FROM batch() EXCEPT ALL TABLE se_new)) d;
SELECT view, watermark, late, events_in FROM weir.views WHERE view::text IN ('se_w', 'se_new') ORDER BY view::text;

-- retention may take the record of the end: W stays
ALTER TABLE se SET (retention = '1 microsecond');
SELECT weir.checkpoint();
SELECT count(*) FROM se;
SELECT weir.watermark('se');
ALTER TABLE se RESET (retention);
\set VERBOSITY sqlstate
INSERT INTO se VALUES (4, 7, '2026-01-01 00:03:00Z');
\set VERBOSITY default

-- TRUNCATE begins anew; what is final stays so
SELECT weir.wait_for();
SET client_min_messages = notice;
TRUNCATE se;
SET client_min_messages = warning;
SELECT weir.watermark('se');
INSERT INTO se VALUES (4, 8, '2025-12-31 00:00:00Z'), (4, 9, '2026-01-01 00:02:10Z'), (4, 10, '2026-03-01 00:00:00Z');
SELECT weir.wait_for();
SELECT sum(s) FROM se_w;
SELECT late FROM weir.views WHERE view = 'se_w'::regclass;
TABLE se_k ORDER BY k;
SELECT sum(s) FROM se_inf;
-- a view that begins anew with it
REFRESH MATERIALIZED VIEW se_w WITH NO DATA;
REFRESH MATERIALIZED VIEW se_w;
CREATE MATERIALIZED VIEW se_new2 USING continuous AS
  SELECT window_start, window_end, k, sum(v) AS s FROM se, tumble(ts, '1 minute') GROUP BY window_start, window_end, k;
INSERT INTO se VALUES (4, 11, '2026-03-01 00:00:01Z');
SELECT weir.wait_for();
TABLE se_w ORDER BY window_start;
SELECT count(*) FROM ((TABLE se_w EXCEPT ALL TABLE se_new2) UNION ALL (TABLE se_new2 EXCEPT ALL TABLE se_w)) d;
SELECT weir.watermark('se'), weir.watermark('se_w');

-- without time zone; dropped, and its name taken again
CREATE TABLE se_ts (v int, ts timestamp NOT NULL) USING stream WITH (event_time = ts);
CREATE MATERIALIZED VIEW se_tsw USING continuous AS
  SELECT window_end, count(*) AS n FROM se_ts, tumble(ts, '1 hour') GROUP BY window_end;
INSERT INTO se_ts VALUES (1, '2026-01-01'), (2, '4713-01-01 BC'), (3, '294276-01-01');
SELECT weir.advance_watermark('se_ts', 'infinity');
SELECT weir.wait_for();
SELECT weir.checkpoint();
SELECT *, weir.is_final('se_tsw', window_end) FROM se_tsw ORDER BY 1;
\set VERBOSITY sqlstate
INSERT INTO se_ts VALUES (1, '2026-01-01');
\set VERBOSITY default
DROP TABLE se_ts CASCADE;
SELECT count(*) FROM weir.stream_end;
CREATE TABLE se_ts (v int, ts timestamp NOT NULL) USING stream WITH (event_time = ts);
INSERT INTO se_ts VALUES (1, '2026-01-01');
DROP TABLE se_ts;
-- a stream without event time ends too; as a table it takes rows again
CREATE TABLE se_un (v int) USING stream;
SELECT weir.advance_watermark('se_un', 'infinity');
SELECT weir.watermark('se_un');
\set VERBOSITY sqlstate
INSERT INTO se_un VALUES (1);
ALTER TABLE se_un SET ACCESS METHOD heap;
INSERT INTO se_un VALUES (1);
ALTER TABLE se_un SET ACCESS METHOD stream;
INSERT INTO se_un VALUES (2);
\set VERBOSITY default
SELECT weir.watermark('se_un'), count(*) FROM se_un;
DROP TABLE se_un;

-- as a partition
CREATE TABLE se_p (v int, ts timestamptz NOT NULL) PARTITION BY RANGE (ts);
CREATE TABLE se_p1 PARTITION OF se_p FOR VALUES FROM ('2026-01-01Z') TO ('2026-02-01Z') USING stream WITH (event_time = ts);
CREATE TABLE se_p2 PARTITION OF se_p FOR VALUES FROM ('2026-02-01Z') TO ('2026-03-01Z') USING stream WITH (event_time = ts);
SELECT weir.advance_watermark('se_p1', 'infinity');
INSERT INTO se_p VALUES (1, '2026-02-02Z');
\set VERBOSITY terse
SELECT weir.advance_watermark('se_p', 'infinity');
INSERT INTO se_p SELECT 1, '2026-01-02Z' WHERE now() IS NOT NULL;
\set VERBOSITY default
TRUNCATE se_p;
INSERT INTO se_p VALUES (1, '2026-01-02Z');
DROP TABLE se_p;

DROP TABLE se CASCADE;
DROP FUNCTION batch(), differ();
DROP OWNED BY se_writer;
DROP ROLE se_writer;
