-- REFRESH: rebuilds from what the stream holds; never loses what it does not
CREATE TABLE s (k int, x int, ts timestamptz)
  USING stream WITH (event_time = ts, watermark_delay = '5 seconds');
CREATE MATERIALIZED VIEW w USING continuous AS
  SELECT window_start, k, count(*) AS n, sum(x) AS total
  FROM s, tumble(ts, '10 seconds') GROUP BY window_start, k;
CREATE MATERIALIZED VIEW a USING continuous AS
  SELECT k, count(*) AS n FROM s GROUP BY k;
INSERT INTO s SELECT i % 3, i, timestamptz '2026-01-01 00:00Z' + i * interval '1 s'
  FROM generate_series(0, 59) i;
SELECT weir.wait_for('w'), weir.wait_for('a');
SELECT count(*), sum(n), sum(total) FROM w;

-- late rows are counted, not added; they come in with more lateness and REFRESH
INSERT INTO s VALUES (1, 1000, '2026-01-01 00:00:05Z');
SELECT weir.wait_for('w');
SELECT events_in, late FROM weir.views WHERE view = 'w'::regclass;
SELECT sum(total) FROM w;
ALTER MATERIALIZED VIEW w SET (allowed_lateness = '1 hour');
REFRESH MATERIALIZED VIEW w;
SELECT weir.wait_for('w');
SELECT events_in, late FROM weir.views WHERE view = 'w'::regclass;
SELECT sum(total) FROM w;
SELECT count(*) FROM (TABLE w EXCEPT ALL
  (SELECT window_start, k, count(*), sum(x) FROM s, tumble(ts, '10 seconds')
   GROUP BY window_start, k)) d;

-- twice at once, and with an index
CREATE INDEX ON w (window_start);
REFRESH MATERIALIZED VIEW w;
REFRESH MATERIALIZED VIEW w;
REFRESH MATERIALIZED VIEW a;
SELECT weir.wait_for('w'), weir.wait_for('a');
SELECT count(*), sum(n), sum(total) FROM w;
SELECT * FROM a ORDER BY k;
ALTER MATERIALIZED VIEW w SET (allowed_lateness = '0');
SELECT weir.checkpoint();
SELECT final_rows, groups FROM weir.views WHERE view = 'w'::regclass;
SELECT count(*), sum(n), sum(total) FROM w;

-- in a transaction that is rolled back: nothing happens
BEGIN;
REFRESH MATERIALIZED VIEW a;
ROLLBACK;
SELECT weir.wait_for('a');
SELECT generation FROM weir.view_wish WHERE view = 'a'::regclass;

-- what the stream has lost cannot be rebuilt, and is not thrown away
TRUNCATE s;
SELECT count(*) FROM s;
REFRESH MATERIALIZED VIEW a;
\set VERBOSITY sqlstate
REFRESH MATERIALIZED VIEW w;
\set VERBOSITY default
SELECT count(*), sum(n), sum(total) FROM w;
INSERT INTO s VALUES (1, 1, '2026-01-01 01:00Z');
SELECT weir.wait_for('a');
SELECT * FROM a ORDER BY k;

-- unless asked to begin anew
REFRESH MATERIALIZED VIEW a WITH NO DATA;
SELECT * FROM a;
SELECT weir.wait_for('a');
REFRESH MATERIALIZED VIEW a;
SELECT weir.wait_for('a');
SELECT * FROM a ORDER BY k;
REFRESH MATERIALIZED VIEW a;
SELECT weir.wait_for('a');
SELECT * FROM a ORDER BY k;

-- a view made after the loss knows nothing of it
CREATE MATERIALIZED VIEW b USING continuous AS SELECT count(*) AS n FROM s;
SELECT weir.wait_for('b');
REFRESH MATERIALIZED VIEW b;
SELECT weir.wait_for('b');
TABLE b;

-- WITH NO DATA: there, but not started
CREATE MATERIALIZED VIEW off USING continuous AS SELECT count(*) AS n FROM s WITH NO DATA;
SELECT * FROM off;
SELECT ispopulated FROM pg_matviews WHERE matviewname = 'off';
\set VERBOSITY terse
SELECT weir.pause('off');
SELECT weir.resume('off');
\set VERBOSITY default
SELECT state, worker_pid, groups FROM weir.views WHERE view = 'off'::regclass;
REFRESH MATERIALIZED VIEW off WITH NO DATA;
REFRESH MATERIALIZED VIEW off;
SELECT weir.wait_for('off');
TABLE off;
REFRESH MATERIALIZED VIEW off WITH NO DATA;
SELECT state, worker_pid, groups FROM weir.views WHERE view = 'off'::regclass;
INSERT INTO s VALUES (1, 1, '2026-01-01 01:00Z');
REFRESH MATERIALIZED VIEW off;
SELECT weir.wait_for('off');
SELECT off.n = (SELECT count(*) FROM s) AS all FROM off;
-- a paused view is started by it
SELECT weir.pause('off');
REFRESH MATERIALIZED VIEW off;
SELECT weir.wait_for('off');
SELECT state FROM weir.views WHERE view = 'off'::regclass;
-- one transaction for two views and an event
SELECT weir.wait_for('b');
BEGIN;
REFRESH MATERIALIZED VIEW off;
INSERT INTO s VALUES (1, 1, '2026-01-01 01:00Z');
REFRESH MATERIALIZED VIEW b;
TABLE b;
COMMIT;
SELECT weir.wait_for('off'), weir.wait_for('b');
SELECT off.n = (SELECT count(*) FROM s) AS off, b.n = off.n AS b FROM off, b;
-- its own reader, somebody else
BEGIN;
DECLARE c CURSOR FOR SELECT * FROM off;
REFRESH MATERIALIZED VIEW off;
ROLLBACK;
CREATE ROLE regress_weir_refresh;
SET ROLE regress_weir_refresh;
\set VERBOSITY sqlstate
REFRESH MATERIALIZED VIEW off;
\set VERBOSITY default
RESET ROLE;
DROP ROLE regress_weir_refresh;

-- a rebuild that cannot even be opened has failed, and what answers goes on
CREATE ROLE regress_weir_refresh;
CREATE TABLE unopened (k int) USING stream;
GRANT SELECT, TRIGGER ON unopened TO regress_weir_refresh;
GRANT CREATE ON SCHEMA public TO regress_weir_refresh;
SET ROLE regress_weir_refresh;
CREATE MATERIALIZED VIEW u USING continuous AS SELECT sum(60 / k) AS s FROM unopened;
RESET ROLE;
INSERT INTO unopened VALUES (1);
SELECT weir.wait_for('u');
BEGIN;
REFRESH MATERIALIZED VIEW u;
REVOKE TRIGGER ON unopened FROM regress_weir_refresh;
COMMIT;
\set VERBOSITY terse
SELECT weir.wait_for('u', timeout => '1 min');
\set VERBOSITY default
SELECT state, error FROM weir.views WHERE view = 'u'::regclass;
TABLE u;
-- also where what answers had failed before, and where it is resumed in vain
GRANT TRIGGER ON unopened TO regress_weir_refresh;
SELECT weir.resume('u');
SELECT weir.wait_for('u');
INSERT INTO unopened VALUES (0);
\set VERBOSITY terse
SELECT weir.wait_for('u');
BEGIN;
REFRESH MATERIALIZED VIEW u;
REVOKE TRIGGER ON unopened FROM regress_weir_refresh;
COMMIT;
SELECT weir.wait_for('u', timeout => '1 min');
SELECT weir.resume('u');
SELECT weir.wait_for('u', timeout => '1 min');
\set VERBOSITY default
SELECT state, error FROM weir.views WHERE view = 'u'::regclass;
GRANT TRIGGER ON unopened TO regress_weir_refresh;
ALTER MATERIALIZED VIEW u SET (on_error = skip);
SELECT weir.resume('u');
SELECT weir.wait_for('u');
SELECT state, error FROM weir.views WHERE view = 'u'::regclass;
TABLE u;
DROP TABLE unopened CASCADE;
REVOKE CREATE ON SCHEMA public FROM regress_weir_refresh;
DROP ROLE regress_weir_refresh;

-- retention loses events, too
ALTER TABLE s SET (retention_size = '1');
SELECT weir.checkpoint();
ALTER TABLE s RESET (retention_size);
\set VERBOSITY sqlstate
REFRESH MATERIALIZED VIEW b;
\set VERBOSITY default
REFRESH MATERIALIZED VIEW CONCURRENTLY b;

-- a rebuild that stands still needs the events, whatever the old rows have
CREATE TABLE held (k int) USING stream;
CREATE MATERIALIZED VIEW h USING continuous AS SELECT count(*) AS n FROM held;
INSERT INTO held SELECT generate_series(1, 10);
SELECT weir.wait_for('h');
SELECT weir.checkpoint();
BEGIN;
REFRESH MATERIALIZED VIEW h;
SELECT weir.pause('h');
COMMIT;
TRUNCATE held;
SELECT weir.resume('h');
SELECT weir.wait_for('h');
TABLE h;
TRUNCATE held;
TABLE h;
DROP TABLE held CASCADE;

DROP TABLE s CASCADE;
SELECT count(*) FROM weir.stream_trim;

-- windows that hold nothing of what is gone are rebuilt, the others stay
CREATE TABLE r (k int, x int, ts timestamptz)
  USING stream WITH (event_time = ts, watermark_delay = '10 seconds');
CREATE FUNCTION at(s float) RETURNS timestamptz LANGUAGE sql IMMUTABLE
  RETURN timestamptz '2026-01-01 00:00Z' + s * interval '1 s';
CREATE MATERIALIZED VIEW tum USING continuous AS
  SELECT window_end, k, count(*) AS n, sum(x) AS x
  FROM r, tumble(ts, '10 seconds') GROUP BY window_end, k;
CREATE MATERIALIZED VIEW hp USING continuous AS
  SELECT window_start, k, count(*) AS n, sum(x) AS x
  FROM r, hop(ts, '10 seconds', '30 seconds') GROUP BY window_start, k;
CREATE MATERIALIZED VIEW cum USING continuous AS
  SELECT window_end, grouping(k) AS g, k, count(*) AS n, sum(x) AS x
  FROM r, cumulate(ts, '10 seconds', '1 minute') GROUP BY window_end, ROLLUP (k);
SET client_min_messages = warning;
CREATE MATERIALIZED VIEW cal USING continuous AS
  SELECT date_trunc('minute', ts, 'Asia/Kathmandu') AS m, k, count(*) AS n, sum(x) AS x
  FROM r GROUP BY 1, k;
RESET client_min_messages;
CREATE MATERIALIZED VIEW ses USING continuous AS
  SELECT window_end, k, count(*) AS n FROM r, session(ts, '1 s') GROUP BY window_end, k;
CREATE MATERIALIZED VIEW cnt USING continuous AS
  SELECT window_end, k, count(*) AS n FROM r, count_window(10) GROUP BY window_end, k;
CREATE MATERIALIZED VIEW arr USING continuous AS
  SELECT window_end, k, count(*) AS n FROM r, tumble(now(), '1 s') GROUP BY window_end, k;
CREATE MATERIALIZED VIEW blind USING continuous AS
  SELECT k, count(*) AS n FROM r, tumble(ts, '10 seconds') GROUP BY window_start, k;
ALTER MATERIALIZED VIEW tum SET (late_table = 'tum_late');
INSERT INTO r SELECT i % 3, i, at(i) FROM generate_series(0, 54) i;
INSERT INTO r VALUES (0, 1000, at(3));
SELECT weir.wait_for();
ALTER TABLE r SET (retention_size = '1');
SELECT weir.checkpoint();
SELECT weir.checkpoint();
ALTER TABLE r RESET (retention_size);
SELECT count(*) FROM r;
SELECT max_time = extract(epoch FROM at(54) - timestamptz '2000-01-01Z') * 1000000 AS known
FROM weir.stream_trim WHERE stream = 'r'::regclass;

-- not before the windows that lack something are final
SET timezone = 'UTC';
REFRESH MATERIALIZED VIEW tum;
INSERT INTO r SELECT i % 3, i, at(i) FROM generate_series(55, 69) i;
SELECT weir.wait_for();
SELECT weir.checkpoint();
REFRESH MATERIALIZED VIEW tum;
REFRESH MATERIALIZED VIEW hp;
INSERT INTO r SELECT i % 3, i, at(i) FROM generate_series(70, 119) i;
-- late for all, for windows that stay, and for some of hop's
INSERT INTO r VALUES (1, 2000, at(45)), (1, 4000, at(59)), (2, 8000, at(65)), (0, 16000, at(75));
SELECT weir.wait_for();
SELECT weir.checkpoint();
SELECT view, events_in, late, late_partial FROM weir.views
WHERE view IN ('tum'::regclass, 'hp'::regclass, 'cum'::regclass) ORDER BY 1;
SELECT x, to_char(window_end, 'MI:SS') FROM tum_late ORDER BY x;
CREATE TABLE old_tum AS TABLE tum;
CREATE TABLE old_hp AS TABLE hp;
CREATE TABLE old_cum AS TABLE cum;
CREATE TABLE old_cal AS TABLE cal;
ALTER MATERIALIZED VIEW tum SET (allowed_lateness = '1 hour');
ALTER MATERIALIZED VIEW hp SET (allowed_lateness = '1 hour');
ALTER MATERIALIZED VIEW cum SET (allowed_lateness = '1 hour');
ALTER MATERIALIZED VIEW cal SET (allowed_lateness = '1 hour');
REFRESH MATERIALIZED VIEW tum;
REFRESH MATERIALIZED VIEW hp;
REFRESH MATERIALIZED VIEW cum;
REFRESH MATERIALIZED VIEW cal;
\set VERBOSITY terse
REFRESH MATERIALIZED VIEW cal; -- overtakes the one before
\set VERBOSITY default
SELECT weir.wait_for();
-- the rows of before, and the batch query over the rest
CREATE VIEW want_tum AS
  SELECT * FROM old_tum WHERE window_end <= at(60) UNION ALL
  SELECT window_end, k, count(*), sum(x) FROM r, tumble(ts, '10 seconds')
  WHERE window_end > at(60) GROUP BY window_end, k;
CREATE VIEW want_hp AS
  SELECT * FROM old_hp WHERE window_start + '30 s' <= at(80) UNION ALL
  SELECT window_start, k, count(*), sum(x) FROM r, hop(ts, '10 seconds', '30 seconds')
  WHERE window_end > at(80) GROUP BY window_start, k;
CREATE VIEW want_cum AS
  SELECT * FROM old_cum WHERE window_end <= at(60) UNION ALL
  SELECT window_end, grouping(k), k, count(*), sum(x) FROM r, cumulate(ts, '10 seconds', '1 minute')
  WHERE window_end > at(60) GROUP BY window_end, ROLLUP (k);
CREATE VIEW want_cal AS
  SELECT * FROM old_cal WHERE m < at(60) UNION ALL
  SELECT date_trunc('minute', ts, 'Asia/Kathmandu'), k, count(*), sum(x) FROM r
  WHERE ts >= at(60) GROUP BY 1, k;
CREATE VIEW wrong AS
  SELECT 'tum' AS v, d.*::text FROM (TABLE tum EXCEPT ALL TABLE want_tum) d UNION ALL
  SELECT 'tum', d.*::text FROM (TABLE want_tum EXCEPT ALL TABLE tum) d UNION ALL
  SELECT 'hp', d.*::text FROM (TABLE hp EXCEPT ALL TABLE want_hp) d UNION ALL
  SELECT 'hp', d.*::text FROM (TABLE want_hp EXCEPT ALL TABLE hp) d UNION ALL
  SELECT 'cum', d.*::text FROM (TABLE cum EXCEPT ALL TABLE want_cum) d UNION ALL
  SELECT 'cum', d.*::text FROM (TABLE want_cum EXCEPT ALL TABLE cum) d UNION ALL
  SELECT 'cal', d.*::text FROM (TABLE cal EXCEPT ALL TABLE want_cal) d UNION ALL
  SELECT 'cal', d.*::text FROM (TABLE want_cal EXCEPT ALL TABLE cal) d;
TABLE wrong;
SELECT (SELECT sum(x) FROM tum) - (SELECT sum(x) FROM old_tum) AS tum,
  (SELECT sum(x) FROM hp) - (SELECT sum(x) FROM old_hp) AS hp,
  (SELECT sum(x) FROM cum WHERE g = 1) - (SELECT sum(x) FROM old_cum WHERE g = 1) AS cum,
  (SELECT sum(x) FROM cal) - (SELECT sum(x) FROM old_cal) AS cal;
SELECT view, late, late_partial, final_rows FROM weir.views
WHERE view IN ('tum'::regclass, 'hp'::regclass, 'cum'::regclass, 'cal'::regclass) ORDER BY 1;
SELECT x, to_char(window_end, 'MI:SS') FROM tum_late ORDER BY x;
-- what is final stays so, and what comes for it is late
INSERT INTO r VALUES (1, 32000, at(58)), (2, 64000, at(71));
SELECT weir.wait_for();
SELECT weir.checkpoint();
SELECT x, to_char(window_end, 'MI:SS') FROM tum_late ORDER BY x;
SELECT view, late, late_partial FROM weir.views
WHERE view IN ('tum'::regclass, 'hp'::regclass, 'cum'::regclass) ORDER BY 1;
DROP VIEW wrong;
-- they close one day, with those that stayed
ALTER MATERIALIZED VIEW tum RESET (allowed_lateness);
INSERT INTO r VALUES (0, 1, at(300));
SELECT weir.wait_for();
SELECT weir.checkpoint();
SELECT count(*), count(DISTINCT (window_end, k)), sum(n) FROM tum WHERE window_end <= at(120);
SELECT final_rows = (SELECT count(*) FROM tum WHERE weir.is_final('tum', window_end))
FROM weir.views WHERE view = 'tum'::regclass;

-- an event far ahead of the others, gone, moves the bound to its window
INSERT INTO r VALUES (0, 5, at(500)), (0, 6, at(310));
INSERT INTO r VALUES (0, 7, at(490));
SELECT weir.wait_for();
ALTER TABLE r SET (retention_size = '1');
SELECT weir.checkpoint();
SELECT weir.checkpoint();
ALTER TABLE r RESET (retention_size);
SELECT x FROM r;
INSERT INTO r VALUES (0, 8, at(509.999)), (0, 9, at(510)), (0, 10, at(530));
SELECT weir.wait_for();
SELECT weir.checkpoint();
REFRESH MATERIALIZED VIEW tum;
SELECT weir.wait_for('tum');
SELECT to_char(window_end, 'MI:SS'), n, x FROM tum WHERE window_end > at(120) ORDER BY 1;

-- views of which that cannot be said
REFRESH MATERIALIZED VIEW ses;
\set VERBOSITY sqlstate
REFRESH MATERIALIZED VIEW cnt;
REFRESH MATERIALIZED VIEW arr;
REFRESH MATERIALIZED VIEW blind;
\set VERBOSITY default
-- to begin anew is another matter
REFRESH MATERIALIZED VIEW tum WITH NO DATA;
REFRESH MATERIALIZED VIEW tum;
SELECT weir.wait_for('tum');
SELECT to_char(window_end, 'MI:SS'), n, x FROM tum ORDER BY 1;
-- its first checkpoint clears the late table
SELECT weir.checkpoint();
SELECT count(*) FROM tum_late;

-- TRUNCATE loses events, too
SELECT weir.advance_watermark('r', at(3600)) > at(0) AS moved;
SELECT weir.wait_for();
SELECT weir.checkpoint();
TRUNCATE r;
INSERT INTO r VALUES (0, 11, at(4000)), (0, 12, at(4007));
SELECT weir.wait_for('tum');
REFRESH MATERIALIZED VIEW tum;
SELECT weir.wait_for('tum');
SELECT to_char(window_end, 'HH24:MI:SS'), n, x FROM tum ORDER BY 1;
SELECT weir.wait_for();
BEGIN;
TRUNCATE r;
ROLLBACK;
SELECT max_time = extract(epoch FROM at(530) - timestamptz '2000-01-01Z') * 1000000 AS known
FROM weir.stream_trim WHERE stream = 'r'::regclass;
DROP TABLE r CASCADE;
DROP TABLE tum_late, old_tum, old_hp, old_cum, old_cal;
DROP FUNCTION at;

-- events older than the stream's event time: nobody knows of which windows they are
CREATE TABLE n (k int, ts timestamptz) USING stream;
CREATE MATERIALIZED VIEW nc USING continuous AS SELECT count(*) AS n FROM n;
INSERT INTO n VALUES (1, '2026-01-01 00:00Z');
SELECT weir.wait_for('nc');
TRUNCATE n;
SELECT max_time FROM weir.stream_trim WHERE stream = 'n'::regclass;
INSERT INTO n VALUES (1, '2026-01-01 00:00Z'), (2, NULL);
ALTER TABLE n SET (event_time = ts, watermark_delay = '0');
-- what went before that is in no window of a view to come
SELECT max_time FROM weir.stream_trim WHERE stream = 'n'::regclass;
INSERT INTO n VALUES (2, NULL);
CREATE MATERIALIZED VIEW nv USING continuous AS
  SELECT window_end, count(*) AS n FROM n, tumble(ts, '1 minute')
  WHERE ts IS NOT NULL GROUP BY window_end;
INSERT INTO n VALUES (1, '2026-01-01 01:00Z');
SELECT weir.wait_for();
ALTER TABLE n SET (retention_size = '1');
SELECT weir.checkpoint();
SELECT weir.checkpoint();
ALTER TABLE n RESET (retention_size);
INSERT INTO n VALUES (1, '2026-01-01 02:00Z');
SELECT weir.wait_for('nv');
SELECT weir.checkpoint();
SELECT max_time FROM weir.stream_trim WHERE stream = 'n'::regclass;
REFRESH MATERIALIZED VIEW nv;
SELECT * FROM nv ORDER BY 1;
DROP TABLE n CASCADE;

-- a view that has failed for good is repaired by it, with the rows that stay
CREATE FUNCTION f_add(numeric, int) RETURNS numeric LANGUAGE sql IMMUTABLE RETURN $1 + $2;
CREATE AGGREGATE f_sum(int) (SFUNC = int4_sum, STYPE = int8);
CREATE TABLE f (x int, ts timestamptz) USING stream WITH (event_time = ts, watermark_delay = '0');
CREATE MATERIALIZED VIEW fv USING continuous AS
  SELECT window_start AS w, f_sum(x) AS x FROM f, tumble(ts, '1 minute') GROUP BY window_start;
INSERT INTO f VALUES (1, '2026-01-01 00:00Z');
INSERT INTO f VALUES (2, '2026-01-01 00:00:01Z'), (4, '2026-01-01 00:01Z');
SELECT weir.wait_for('fv');
ALTER TABLE f SET (retention_size = '1');
SELECT weir.checkpoint();
ALTER TABLE f RESET (retention_size);
SELECT x FROM f ORDER BY x;
CREATE OR REPLACE AGGREGATE f_sum(int) (SFUNC = f_add, STYPE = numeric, INITCOND = 0, FINALFUNC = int8);
INSERT INTO f VALUES (8, '2026-01-01 00:01:30Z'), (16, '2026-01-01 00:02Z');
\set VERBOSITY terse
SELECT weir.wait_for('fv');
\set VERBOSITY default
SELECT state, error FROM weir.views WHERE view = 'fv'::regclass;
REFRESH MATERIALIZED VIEW fv;
SELECT weir.wait_for('fv');
SELECT state, error, final_rows FROM weir.views WHERE view = 'fv'::regclass;
SELECT * FROM fv ORDER BY w;
DROP TABLE f CASCADE;
DROP AGGREGATE f_sum(int);
DROP FUNCTION f_add;

-- where clocks were put back over midnight, a later event may be of an earlier day
CREATE TABLE z (x int, ts timestamptz) USING stream WITH (event_time = ts, watermark_delay = '0');
SET client_min_messages = warning;
CREATE MATERIALIZED VIEW zv USING continuous AS
  SELECT date_trunc('day', ts, 'America/St_Johns') AS day, count(*) AS n, sum(x) AS x
  FROM z GROUP BY 1;
RESET client_min_messages;
INSERT INTO z VALUES (1, '2006-10-29 02:30:30Z'), (2, '2006-10-29 03:00Z');
INSERT INTO z VALUES (4, '2006-10-29 12:00Z'), (8, '2006-10-30 12:00Z'), (16, '2006-10-31 12:00Z');
SELECT weir.wait_for('zv');
ALTER TABLE z SET (retention_size = '1');
SELECT weir.checkpoint();
ALTER TABLE z RESET (retention_size);
SELECT x FROM z ORDER BY x;
SET timezone = 'America/St_Johns';
REFRESH MATERIALIZED VIEW zv;
SELECT weir.wait_for('zv');
SELECT * FROM zv ORDER BY 1;
DROP TABLE z CASCADE;

-- what summaries say of the log counts, too
CREATE TABLE v (t text, ts timestamptz) USING stream WITH (event_time = ts);
CREATE MATERIALIZED VIEW vv USING continuous AS SELECT count(*) AS n FROM v;
INSERT INTO v SELECT repeat(md5(i::text), 60), timestamptz '2026-01-02 00:00Z' - i * interval '1 s'
  FROM generate_series(0, 999) i;
SELECT weir.wait_for('vv');
VACUUM v;
SELECT weir.summarize('v') >= 0 AS summarized;
TRUNCATE v;
SELECT max_time = extract(epoch FROM timestamptz '2026-01-02 00:00Z' - '2000-01-01 00:00Z') * 1000000 AS known
FROM weir.stream_trim WHERE stream = 'v'::regclass;
DROP TABLE v CASCADE;
