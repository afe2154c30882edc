-- Every kind of aggregate, key and window: at any moment a view's rows are
-- those of its query run over the stream, less what came late.  Where order
-- matters it is the log's, so the query is run over a table that keeps it.
SET timezone = 'UTC';
SET datestyle = 'ISO';
SET client_min_messages = warning;
CREATE SCHEMA agg;
CREATE SCHEMA agg_heap;
SET search_path = agg, public;

CREATE TYPE mood AS ENUM ('sad', 'ok', 'happy');
CREATE TYPE pt AS (x int, y text);
CREATE TABLE ev (id int, k int, g text, i2 smallint, i4 int, i8 bigint, num numeric, f4 real, f8 double precision,
  m money, b boolean, bt bit(8), t text, bp char(6), by bytea, d date, tim time, ttz timetz, iv interval, tsp timestamp,
  e mood, ip inet, arr int[], j jsonb, p pt, o oid, lsn pg_lsn, ts timestamptz NOT NULL)
  USING stream WITH (event_time = ts, watermark_delay = '10 minutes');

CREATE TABLE agg_heap.log (LIKE ev, seq bigint GENERATED ALWAYS AS IDENTITY) USING heap;

-- one transaction: 200 events of the x-th ten minutes, out of order by up to five
SELECT string_agg(attname, ', ' ORDER BY attnum) AS columns FROM pg_attribute WHERE attrelid = 'ev'::regclass AND attnum > 0 \gset
CREATE VIEW agg_heap.ev AS SELECT :columns FROM agg_heap.log ORDER BY seq;
CREATE FUNCTION feed(x int, n int DEFAULT 200) RETURNS void LANGUAGE sql AS $$
  WITH rows AS (INSERT INTO agg_heap.log SELECT id, nullif(id % 7, 6), 'g' || id % 3,
    CASE WHEN h % 5 > 0 THEN h % 1000 - 300 END, CASE WHEN h % 6 > 0 THEN h % 100000 - 50000 END,
    CASE WHEN h % 7 > 0 THEN (h::bigint - 500000) * 9000000000000 END,
    CASE WHEN h % 8 > 0 THEN (h % 10007)::numeric / (1 + h % 13) END,
    CASE WHEN h % 9 > 0 THEN (h % 777)::real / 16 END, CASE WHEN h % 4 > 0 THEN (h % 10007)::float8 / (1 + h % 17) END,
    ((h % 3333) / 100.0)::numeric::money, CASE WHEN h % 3 > 0 THEN h % 2 = 0 END, (h % 256)::bit(8),
    CASE WHEN h % 10 > 0 THEN repeat(chr(97 + h % 26), 1 + h % 40) END, chr(65 + h % 26), decode(md5(h::text), 'hex'),
    date '2020-01-01' + h % 366, time '00:00' + h % 86400 * interval '1 s', time '00:00' + h % 86400 * interval '1 s',
    (h % 24) * interval '1 h' + (h % 5 - 2) * interval '1 month', timestamp '2020-01-01' + h % 10000 * interval '1 min',
    (ARRAY['sad', 'ok', 'happy'])[1 + h % 3]::mood, inet '10.0.0.0' + h % 1000, ARRAY[h % 5, NULL, h % 7],
    CASE WHEN h % 4 > 0 THEN jsonb_build_object('a', h % 10, 'b', md5(h::text)) END, ROW(h % 4, 'y' || h % 3)::pt,
    h % 100, '0/0'::pg_lsn + h, timestamptz '2020-01-01' + (x * 10 + (h % 1500) / 100.0) * interval '1 min'
  FROM (SELECT x * 1000 + i AS id, (x * 1000 + i) * 7919 % 1000003 AS h FROM generate_series(1, n) i) s RETURNING *)
  INSERT INTO ev SELECT id, k, g, i2, i4, i8, num, f4, f8, m, b, bt, t, bp, by, d, tim, ttz, iv, tsp, e, ip, arr, j, p, o, lsn, ts FROM rows
$$;

-- built in, without window
CREATE MATERIALIZED VIEW a_sum USING continuous AS
  SELECT k, count(*), count(i4) AS ci, sum(i2) AS s2, sum(i4) AS s4, sum(i8) AS s8, sum(num) AS sn, sum(f4) AS sf4, sum(f8) AS sf8,
    sum(m) AS sm, sum(iv) AS si, sum(tim) AS stm FROM ev GROUP BY k;
CREATE MATERIALIZED VIEW a_avg USING continuous AS
  SELECT k, g, avg(i2) AS a2, avg(i4) AS a4, avg(i8) AS a8, avg(num) AS an, avg(f4) AS af4, avg(f8) AS af8, avg(iv) AS ai, sum(i4) AS s4, count(i8) FROM ev GROUP BY g, k;
CREATE MATERIALIZED VIEW a_min USING continuous AS
  SELECT k, min(i2) AS c1, min(i4) AS c2, min(i8) AS c3, min(num) AS c4, min(f4) AS c5, min(f8) AS c6, min(m) AS c7, min(t) AS c8, min(bp) AS c9,
    min(d) AS c10, min(tim) AS c11, min(ttz) AS c12, min(iv) AS c13, min(tsp) AS c14, min(ts) AS c15, min(e) AS c16, min(ip) AS c17,
    min(arr) AS c18, min(o) AS c19, min(lsn) AS c20 FROM ev GROUP BY k;
CREATE MATERIALIZED VIEW a_max USING continuous AS
  SELECT g, max(i2) AS c1, max(i4) AS c2, max(i8) AS c3, max(num) AS c4, max(f4) AS c5, max(f8) AS c6, max(m) AS c7, max(t) AS c8, max(bp) AS c9,
    max(d) AS c10, max(tim) AS c11, max(ttz) AS c12, max(iv) AS c13, max(tsp) AS c14, max(ts) AS c15, max(e) AS c16, max(ip) AS c17,
    max(arr) AS c18, max(o) AS c19, max(lsn) AS c20 FROM ev GROUP BY g;
CREATE MATERIALIZED VIEW a_var USING continuous AS
  SELECT k, variance(i2) AS c1, var_pop(i2) AS c2, var_samp(i4) AS c3, stddev(i4) AS c4, stddev_pop(i8) AS c5, stddev_samp(i8) AS c6,
    var_pop(num) AS c7, stddev(num) AS c8, var_samp(f4) AS c9, stddev_pop(f4) AS c10, variance(f8) AS c11, stddev(f8) AS c12, avg(i8) AS c13, var_pop(i8) AS c14
  FROM ev GROUP BY k;
CREATE MATERIALIZED VIEW a_bool USING continuous AS
  SELECT k, bool_and(b) AS c1, bool_or(b) AS c2, every(i4 > -60000) AS c3, bit_and(i2) AS c4, bit_or(i4) AS c5, bit_and(i8) AS c6, bit_or(bt) AS c7,
    bit_and(bt) AS c8, bit_xor(i4) AS c9, bit_xor(bt) AS c10, bit_xor(i8) AS c11, bit_xor(i2) AS c12 FROM ev GROUP BY k;
CREATE MATERIALIZED VIEW a_collect USING continuous AS
  SELECT k, string_agg(t, ',') AS c1, string_agg(by, '\x00') AS c2, array_agg(i4) AS c3, array_agg(t) AS c4, array_agg(p) AS c5, array_agg(arr) AS c6,
    json_agg(j) AS c7, jsonb_agg(t) AS c8, json_object_agg(id, f8) AS c9, jsonb_object_agg(id, p) AS c10, string_agg(t, g) AS c11 FROM ev GROUP BY k;
CREATE MATERIALIZED VIEW a_regr USING continuous AS
  SELECT k, regr_count(f8, i4) AS c1, regr_sxx(f8, i4) AS c2, regr_syy(f8, i4) AS c3, regr_sxy(f8, i4) AS c4, regr_avgx(f8, i4) AS c5, regr_avgy(f8, i4) AS c6,
    regr_r2(f8, i4) AS c7, regr_slope(f8, i4) AS c8, regr_intercept(f8, i4) AS c9, covar_pop(f8, f4) AS c10, covar_samp(f8, f4) AS c11, corr(f8, f4) AS c12 FROM ev GROUP BY k;
-- DISTINCT and ORDER BY inside, ordered sets; nothing here depends on how ties are broken
CREATE MATERIALIZED VIEW a_ordered USING continuous AS
  SELECT k, array_agg(i4 ORDER BY id DESC) AS c1, string_agg(t, ',' ORDER BY t COLLATE "C" DESC NULLS FIRST, id) AS c2, count(DISTINCT i2 / 10) AS c3,
    sum(DISTINCT i4 % 50) AS c4, array_agg(DISTINCT t) AS c5, array_agg(DISTINCT g ORDER BY g DESC) AS c6, string_agg(DISTINCT g, ';' ORDER BY g) AS c7,
    avg(DISTINCT f4::int) FILTER (WHERE b) AS c8, count(DISTINCT p) AS c9, array_agg(id ORDER BY (p).y, i4 NULLS FIRST, id) FILTER (WHERE i2 > 0) AS c10,
    jsonb_agg(DISTINCT e) AS c11, min(DISTINCT i4) AS c12, count(DISTINCT f8 > 100) AS c13 FROM ev GROUP BY k;
CREATE MATERIALIZED VIEW a_sets USING continuous AS
  SELECT k, percentile_cont(0.5) WITHIN GROUP (ORDER BY f8) AS c1, percentile_cont(ARRAY[0.1, 0.9]) WITHIN GROUP (ORDER BY f8) AS c2,
    percentile_disc(0.25) WITHIN GROUP (ORDER BY num) AS c3, percentile_disc(ARRAY[0, 1]) WITHIN GROUP (ORDER BY t COLLATE "C") AS c4,
    percentile_cont(0.5) WITHIN GROUP (ORDER BY iv) AS c5, mode() WITHIN GROUP (ORDER BY i4 % 3) AS c6,
    rank(7) WITHIN GROUP (ORDER BY i2 % 20) AS c7, dense_rank(7) WITHIN GROUP (ORDER BY i2 % 20) AS c8, percent_rank(100, 'm') WITHIN GROUP (ORDER BY i4, g) AS c9,
    cume_dist(0) WITHIN GROUP (ORDER BY i4 DESC) AS c10, rank(k) WITHIN GROUP (ORDER BY i2 % 7) AS c11,
    percentile_disc(coalesce(k, 5) / 10.0) WITHIN GROUP (ORDER BY id) AS c12, percentile_cont(0.75) WITHIN GROUP (ORDER BY f8) FILTER (WHERE b) AS c13
  FROM ev GROUP BY k;

-- of users
CREATE AGGREGATE plus(bigint) (sfunc = int8pl, stype = bigint, combinefunc = int8pl, initcond = '0', parallel = safe);
CREATE AGGREGATE plus_only(bigint) (sfunc = int8pl, stype = bigint);
CREATE AGGREGATE count_on(bigint) (sfunc = int8inc_any, stype = bigint);
CREATE AGGREGATE plus_null(numeric) (sfunc = numeric_add, stype = numeric, initcond = '0.000');
CREATE AGGREGATE moving(int) (sfunc = int4_avg_accum, stype = bigint[], finalfunc = int8_avg, initcond = '{0,0}',
  msfunc = int4_avg_accum, minvfunc = int4_avg_accum_inv, mstype = bigint[], mfinalfunc = int8_avg, minitcond = '{0,0}');
CREATE AGGREGATE pair7(int) (sfunc = int4_avg_accum, stype = bigint[], initcond = '{7,700}');
CREATE AGGREGATE big_avg(bigint) (sfunc = int8_avg_accum, stype = internal, sspace = 48, finalfunc = numeric_poly_avg,
  combinefunc = int8_avg_combine, serialfunc = int8_avg_serialize, deserialfunc = int8_avg_deserialize);
CREATE AGGREGATE num_avg(numeric) (sfunc = numeric_avg_accum, stype = internal, finalfunc = numeric_avg,
  combinefunc = numeric_avg_combine, serialfunc = numeric_avg_serialize, deserialfunc = numeric_avg_deserialize);
CREATE AGGREGATE unserial(anynonarray) (sfunc = array_agg_transfn, stype = internal, finalfunc = array_agg_finalfn, finalfunc_extra);
CREATE AGGREGATE collect(anycompatible) (sfunc = array_append, stype = anycompatiblearray, initcond = '{}');
CREATE AGGREGATE joined(anycompatiblearray) (sfunc = array_cat, stype = anycompatiblearray);
CREATE FUNCTION keep_first(anyelement, anyelement) RETURNS anyelement LANGUAGE plpgsql IMMUTABLE STRICT AS 'BEGIN RETURN $1; END';
CREATE AGGREGATE first_seen(anyelement) (sfunc = keep_first, stype = anyelement);
CREATE FUNCTION null_at_9(int, int) RETURNS int LANGUAGE sql IMMUTABLE STRICT AS 'SELECT CASE WHEN $2 % 9 <> 0 THEN $1 + $2 END';
CREATE AGGREGATE sum_till_9(int) (sfunc = null_at_9, stype = int, initcond = '0');
CREATE FUNCTION null_again(text, text) RETURNS text LANGUAGE plpgsql IMMUTABLE AS
  $$ BEGIN RETURN CASE WHEN $1 IS NULL THEN coalesce($2, 'was null') WHEN length($1) < 100 THEN $1 || coalesce($2, '-') END; END $$;
CREATE AGGREGATE blinks(text) (sfunc = null_again, stype = text);
CREATE TYPE acc AS (n int, total numeric, words text[]);
CREATE FUNCTION acc_add(a acc, w text, x numeric) RETURNS acc LANGUAGE plpgsql IMMUTABLE AS
  $$ BEGIN a.n := coalesce(a.n, 0) + 1; a.total := coalesce(a.total, 0) + coalesce(x, 0); a.words := a.words[1:3] || w; RETURN a; END $$;
CREATE FUNCTION acc_final(a acc, w text, x numeric) RETURNS text LANGUAGE sql IMMUTABLE AS $$ SELECT format('%s of %s: %s', (a).n, (a).total, (a).words) $$;
CREATE AGGREGATE account(w text, x numeric) (sfunc = acc_add, stype = acc, finalfunc = acc_final, finalfunc_extra);
CREATE FUNCTION least_accum(anyelement, VARIADIC anyarray) RETURNS anyelement LANGUAGE sql IMMUTABLE AS 'SELECT least($1, min(v)) FROM unnest($2) v';
CREATE AGGREGATE least_agg(VARIADIC items anyarray) (sfunc = least_accum, stype = anyelement);
CREATE AGGREGATE nth(VARIADIC "any" ORDER BY VARIADIC "any") (sfunc = ordered_set_transition_multi, stype = internal, finalfunc = rank_final, finalfunc_extra, hypothetical);
CREATE FUNCTION plus_rw(numeric[], numeric) RETURNS numeric[] LANGUAGE sql IMMUTABLE AS 'SELECT ARRAY[$1[1] + coalesce($2, 0), $1[2] + 1]';
CREATE FUNCTION rw_final(numeric[]) RETURNS numeric LANGUAGE sql IMMUTABLE AS 'SELECT round($1[1] / nullif($1[2], 0), 6)';
CREATE AGGREGATE rw_avg(numeric) (sfunc = plus_rw, stype = numeric[], finalfunc = rw_final, finalfunc_modify = read_write, initcond = '{0,0}');
CREATE AGGREGATE rw_sum(numeric) (sfunc = plus_rw, stype = numeric[], initcond = '{0,0}');
CREATE AGGREGATE count_10(text) (sfunc = int8inc_any, stype = bigint, initcond = '10');
CREATE AGGREGATE sum_5(int) (sfunc = int4_sum, stype = bigint, initcond = '5');
CREATE AGGREGATE sum_1(float8) (sfunc = float8pl, stype = float8, initcond = '1.5');
CREATE AGGREGATE max_0(int) (sfunc = int4larger, stype = int, initcond = '0');
CREATE AGGREGATE cstr(text) (sfunc = textcat, stype = text, initcond = '');
CREATE MATERIALIZED VIEW u_plain USING continuous AS
  SELECT k, plus(i8 / 1000000) AS c1, plus_only(i4) AS c2, plus_null(num) AS c3, moving(i4) AS c4, pair7(i4) AS c5, big_avg(i8) AS c6, num_avg(num) AS c7,
    sum_till_9(i4) AS c8, rw_avg(num) AS c9, rw_sum(num) AS c10, big_avg(i8) + 1 AS c11, avg(i8) AS c12, avg(num) AS c13, avg(i4) AS c14,
    count_on(i8) AS c15, count_10(t) AS c16, sum_5(i4) AS c17, sum_1(f8) AS c18, max_0(i4) AS c19, max_0(-abs(i4)) AS c20, count(i8) AS c21 FROM ev GROUP BY k;
CREATE MATERIALIZED VIEW u_poly USING continuous AS
  SELECT g, unserial(t) AS c1, unserial(i4) AS c2, collect(num) AS c3, collect(t) AS c4, joined(arr) AS c5, first_seen(i8) AS c6, first_seen(t) AS c7,
    first_seen(p) AS c8, blinks(t) AS c9, account(t, num) AS c10, least_agg(i4, i2::int, 40000) AS c11, least_agg(VARIADIC ARRAY[t, g]) AS c12,
    cstr(g) AS c13, account('w', f8::numeric) FILTER (WHERE b) AS c14 FROM ev GROUP BY g;
CREATE MATERIALIZED VIEW u_many USING continuous AS
  SELECT k, g, collect(DISTINCT i4 % 3) AS c1, nth(5, 'g1') WITHIN GROUP (ORDER BY i2, g) AS c7, joined(arr ORDER BY id) AS c2, cstr(t ORDER BY id DESC) AS c3, unserial(DISTINCT g) AS c4,
    first_seen(id ORDER BY i8 NULLS LAST, id) AS c5, account(DISTINCT g, 1) AS c6 FROM ev GROUP BY k, g;
-- weir.first and weir.last; many ties: ts has steps of 0.6 s
CREATE MATERIALIZED VIEW a_first USING continuous AS
  SELECT k, weir.first(i4, ts) AS c1, weir.last(i4, ts) AS c2, weir.first(t, ts) AS c3, weir.last(t, ts) AS c4, weir.first(id, date_trunc('hour', ts)) AS c5,
    weir.last(id, date_trunc('hour', ts)) AS c6, weir.first(p, tsp) AS c7, weir.last(arr, CASE WHEN b THEN ts END) AS c8, weir.last(num, ts) FILTER (WHERE false) AS c9,
    weir.first(m, 'infinity') AS c10 FROM ev GROUP BY k;

-- clauses
CREATE MATERIALIZED VIEW q_filter USING continuous AS
  SELECT k, count(*) FILTER (WHERE b) AS c1, sum(i4) FILTER (WHERE i4 > 0 AND t IS NOT NULL) AS c2, count(*) FILTER (WHERE false) AS c3, max(t) FILTER (WHERE g = 'g1') AS c4,
    sum(i4) FILTER (WHERE NULL) AS c5 FROM ev WHERE id % 3 <> 1 AND (t > 'c' OR t IS NULL) GROUP BY k;
CREATE MATERIALIZED VIEW q_having USING continuous AS
  SELECT i2 % 50 AS r FROM ev GROUP BY i2 % 50 HAVING count(*) > 12 AND sum(i4) > 200000;
CREATE MATERIALIZED VIEW q_expr USING continuous AS
  SELECT coalesce(k, -1) + 1 AS kk, upper(g) || count(*) AS gg, round((sum(f8) / nullif(count(f8), 0))::numeric, 4) AS mean, CASE WHEN count(*) > 80 THEN 'big' ELSE max(t) END AS c4,
    greatest(max(i4), -min(i4)) - 1 AS c5, ARRAY[count(*), sum(i2)] AS c6, ROW(min(d), max(d))::text AS c7, to_char(max(ts), 'YYYY Mon DD HH24') AS c8,
    (array_agg(p))[1].y AS c9, (first_seen(p)).x AS c10, (jsonb_agg(i4) -> 0) AS c11, sum(k) AS c12, sum(i4 + k) AS c13, count(k + 1) AS c14, bool_or(i4 IS NULL) IS TRUE AS c15
  FROM ev GROUP BY coalesce(k, -1) + 1, upper(g);
CREATE MATERIALIZED VIEW q_keys_only USING continuous AS SELECT g, b FROM ev GROUP BY b, g;
CREATE MATERIALIZED VIEW q_hidden USING continuous AS SELECT count(*) AS n, max(id) AS m FROM ev GROUP BY k, g, i2 % 3;
CREATE MATERIALIZED VIEW q_same USING continuous AS
  SELECT k AS k1, k AS k2, k + 0 AS k3, sum(i4) AS s1, sum(i4) AS s2, sum(i4) + avg(i4) AS s3, sum(i4) FILTER (WHERE b) AS s4 FROM ev GROUP BY k, k + 0;
CREATE MATERIALIZED VIEW q_all USING continuous AS
  SELECT count(*) AS n, sum(i4) AS s, min(t) AS t, array_agg(id) AS ids, percentile_disc(0.5) WITHIN GROUP (ORDER BY id) AS p, avg(num) AS a, stddev(i8) AS d, collect(g) AS c, 1 AS one FROM ev;
CREATE MATERIALIZED VIEW q_all_having USING continuous AS SELECT count(*) AS n FROM ev HAVING count(*) > 700;
CREATE MATERIALIZED VIEW q_none USING continuous AS SELECT count(*) AS n, max(i4) AS m FROM ev WHERE false;
CREATE MATERIALIZED VIEW q_no_group USING continuous AS SELECT k, count(*) AS n FROM ev WHERE k > 100 GROUP BY k;
CREATE VIEW shown AS SELECT id AS ident, k, i4 * 2 AS twice, ts AS at, t FROM ev WHERE id % 2 = 0;
CREATE VIEW agg_heap.shown AS SELECT id AS ident, k, i4 * 2 AS twice, ts AS at, t FROM agg_heap.ev WHERE id % 2 = 0;
CREATE MATERIALIZED VIEW q_view USING continuous AS
  SELECT k, sum(twice) AS s, max(at) AS m, min(s.t) AS t FROM shown s WHERE twice > -1000 GROUP BY k;
CREATE MATERIALIZED VIEW q_cte USING continuous AS
  WITH a AS (SELECT k, g, i4 + 1 AS up, ts FROM ev), b AS NOT MATERIALIZED (SELECT * FROM a WHERE up > 0), unused AS (SELECT 1)
  SELECT window_end, g, sum(up) AS s, count(*) AS n FROM (SELECT * FROM b WHERE g <> 'g0') s, tumble(s.ts, '15 minutes') GROUP BY window_end, g;

-- windows
CREATE MATERIALIZED VIEW w_start USING continuous AS
  SELECT window_start, k, count(*) AS n, sum(num) AS s, array_agg(t) AS a FROM ev, tumble(ts, '7 minutes') GROUP BY window_start, k;
CREATE MATERIALIZED VIEW w_end USING continuous AS
  SELECT count(*) AS n, window_end, sum(i8) AS s, percentile_cont(0.5) WITHIN GROUP (ORDER BY f8) AS p FROM ev, tumble(ts, '10 minutes') GROUP BY window_end;
CREATE MATERIALIZED VIEW w_both USING continuous AS
  SELECT window_start, window_end, g, max(f8) AS m, window_end - window_start AS size, string_agg(DISTINCT g, '' ORDER BY g) AS d
  FROM ev, tumble(ts, '90 s', '2020-01-01 00:00:30+00') GROUP BY g, window_end, window_start;
CREATE MATERIALIZED VIEW w_alias USING continuous AS
  SELECT w.e, w.s, collect(i4) AS c FROM ev JOIN LATERAL tumble(ts => ev.ts, size => '1 hour', origin => '1999-12-31 23:45+00') w(s, e) ON true WHERE b GROUP BY w.s, w.e;
CREATE MATERIALIZED VIEW w_unseen USING continuous AS
  SELECT k, count(*) AS n FROM ev CROSS JOIN tumble(ts, '20 minutes') GROUP BY window_start, k HAVING count(*) > 3;
CREATE MATERIALIZED VIEW w_day USING continuous AS
  SELECT window_start, count(*) AS n FROM ev, tumble(ts, '1 day 12 hours') GROUP BY window_start;
SET client_min_messages = notice;
CREATE MATERIALIZED VIEW w_bin USING continuous AS
  SELECT date_bin('5 minutes', ts, '2001-01-01 00:02:00+00') AS w, k, count(*) AS n, weir.last(i4, ts) AS l FROM ev GROUP BY 1, 2;
CREATE MATERIALIZED VIEW w_trunc USING continuous AS
  SELECT date_trunc('hour', ts) AS w, date_trunc('day', ts) AS d, count(*) AS n, avg(f8) AS a FROM ev GROUP BY 1, 2;
CREATE MATERIALIZED VIEW w_zone USING continuous AS
  SELECT date_trunc('minute', ts, 'Asia/Kathmandu') AS w, g, min(t) AS t FROM ev GROUP BY g, w;
CREATE MATERIALIZED VIEW w_not USING continuous AS
  SELECT date_trunc('hour', ts + interval '30 min') AS w, extract(minute FROM ts) AS mi, count(*) AS n FROM ev GROUP BY 1, 2;
SET client_min_messages = warning;
CREATE MATERIALIZED VIEW w_final USING continuous WITH (emit = final) AS
  SELECT window_start, window_end, k, count(*) AS n, sum(f8) AS s FROM ev, tumble(ts, '8 minutes') GROUP BY window_start, window_end, k;
CREATE MATERIALIZED VIEW w_kept USING continuous WITH (allowed_lateness = infinity) AS
  SELECT window_end, k, count(*) AS n FROM ev, tumble(ts, '3 minutes') GROUP BY window_end, k;

-- the oracle: the same rows, spelled the same.  A hashed aggregate sees a
-- group's rows in log order, as the view does.  closed: windows have been moved
-- to the heap as far as the watermark goes, which emit = final shows.
CREATE FUNCTION differences(closed boolean DEFAULT false) RETURNS TABLE (view name, problem text) LANGUAGE plpgsql
  SET enable_sort = off SET max_parallel_workers_per_gather = 0 SET jit = off AS $$
DECLARE
  n bigint;
  batch text;
  queries int := 0;
BEGIN
  IF EXISTS ((TABLE agg.ev EXCEPT ALL TABLE agg_heap.ev) UNION ALL (TABLE agg_heap.ev EXCEPT ALL TABLE agg.ev)) THEN
    RAISE 'the table does not have the stream''s rows';
  END IF;
  FOR view, batch IN
    SELECT matviewname, rtrim(definition, ';') FROM pg_matviews WHERE schemaname = 'agg' AND matviewname !~ '^[tz]_' ORDER BY 1
  LOOP
    queries := queries + 1;
    IF view = 'w_final' THEN
      CONTINUE WHEN NOT closed;
      batch := batch || ' HAVING window_end <= weir.watermark(''agg.ev'')';
    END IF;
    SET LOCAL search_path = agg_heap, agg, public;
    EXECUTE format('WITH v AS MATERIALIZED (SELECT r::text FROM %I r), b AS MATERIALIZED (SELECT r::text FROM (%s) r)
      SELECT count(*) FROM ((TABLE v EXCEPT ALL TABLE b) UNION ALL (TABLE b EXCEPT ALL TABLE v)) d', view, batch) INTO n;
    SET LOCAL search_path = agg, public;
    problem := n || ' rows differ';
    IF n > 0 THEN RETURN NEXT; END IF;
  END LOOP;
  view := NULL;
  problem := queries || ' views compared';
  RETURN NEXT;
END $$;

SELECT weir.wait_for();
SELECT * FROM differences();
TABLE q_all;
TABLE q_none;
TABLE q_all_having;
SELECT feed(0, 1);
SELECT weir.wait_for();
SELECT * FROM differences();
SELECT feed(0), feed(1);
SELECT weir.wait_for();
SELECT * FROM differences();
SELECT weir.checkpoint();
SELECT * FROM differences(true);
SELECT feed(2);
BEGIN; SELECT feed(3, 50); SAVEPOINT s; SELECT feed(3); ROLLBACK TO s; SELECT feed(4); COMMIT;
BEGIN; SELECT feed(5, 50); ROLLBACK;
SELECT weir.wait_for();
SELECT weir.checkpoint();
SELECT * FROM differences(true);
-- another worker goes on
SELECT count(pg_terminate_backend(pid, 10000)) > 0 AS ended FROM weir.workers;
SELECT feed(5);
SELECT weir.wait_for();
SELECT * FROM differences();
SELECT feed(7, 500);
SELECT weir.wait_for();
SELECT weir.checkpoint();
SELECT * FROM differences(true);
SELECT sum(late) AS late, bool_and(state = 'running') AS running FROM weir.views;
-- first and last by other means: of equal times, the order of the log
SELECT count(*) AS groups, count(*) FILTER (WHERE c1 IS DISTINCT FROM first_i4) AS d1, count(*) FILTER (WHERE c2 IS DISTINCT FROM last_i4) AS d2,
  count(*) FILTER (WHERE c5 IS DISTINCT FROM first_id) AS d5, count(*) FILTER (WHERE c6 IS DISTINCT FROM last_id) AS d6, count(*) FILTER (WHERE c8 IS DISTINCT FROM last_arr) AS d8
FROM a_first a, LATERAL (SELECT (array_agg(i4 ORDER BY ts, seq))[1] AS first_i4, (array_agg(i4 ORDER BY ts DESC, seq DESC))[1] AS last_i4,
  (array_agg(id ORDER BY date_trunc('hour', ts), seq))[1] AS first_id, (array_agg(id ORDER BY date_trunc('hour', ts) DESC, seq DESC))[1] AS last_id,
  (array_agg(arr::text ORDER BY ts DESC, seq DESC) FILTER (WHERE b))[1]::int[] AS last_arr FROM agg_heap.log l WHERE l.k IS NOT DISTINCT FROM a.k) l;
-- some of it to look at
SELECT k, c1, c2, c5, c6, c9, c10 FROM a_first ORDER BY k;
SELECT * FROM q_having ORDER BY r;
SELECT n, s, t, p, round(a, 6) AS a, array_length(c, 1) AS c, one FROM q_all;
SELECT * FROM w_trunc ORDER BY w;
SELECT count(*), sum(n) FROM w_final;
SELECT count(*) FROM w_start TABLESAMPLE system (100);

-- built from the stream's history they are the same
CREATE MATERIALIZED VIEW h_start USING continuous AS
  SELECT window_start, k, count(*) AS n, sum(num) AS s, array_agg(t) AS a FROM ev, tumble(ts, '7 minutes') GROUP BY window_start, k;
CREATE MATERIALIZED VIEW h_poly USING continuous AS
  SELECT g, unserial(t) AS c1, collect(num) AS c3, joined(arr) AS c5, account(t, num) AS c10 FROM ev GROUP BY g;
REFRESH MATERIALIZED VIEW a_collect;
REFRESH MATERIALIZED VIEW w_bin;
REFRESH MATERIALIZED VIEW q_all;
SELECT weir.wait_for();
SELECT * FROM differences(true);

-- time without zone, and days that have 23 and 25 hours
CREATE TABLE tz (id int, at timestamp NOT NULL, zoned timestamptz)
  USING stream WITH (event_time = at, watermark_delay = '0');
CREATE TABLE dst (id int, ts timestamptz NOT NULL) USING stream WITH (event_time = ts, watermark_delay = '0');
CREATE MATERIALIZED VIEW t_tumble USING continuous AS
  SELECT window_start, window_end, count(*) AS n FROM tz, tumble(at, '5 hours', '2000-01-01 01:00') GROUP BY 1, 2;
CREATE MATERIALIZED VIEW t_bin USING continuous AS
  SELECT date_bin('30 min', at, '2000-01-01') AS b, weir.last(id, zoned) AS l FROM tz GROUP BY 1;
SET timezone = 'Europe/Berlin';
CREATE MATERIALIZED VIEW t_month USING continuous AS
  SELECT date_trunc('month', at) AS b, count(*) AS n, min(zoned)::text AS first FROM tz GROUP BY 1;
CREATE MATERIALIZED VIEW z_day USING continuous AS
  SELECT date_trunc('day', ts) AS d, to_char(date_trunc('day', ts), 'YYYY-MM-DD HH24 TZ') AS t, count(*) AS n FROM dst GROUP BY 1;
CREATE MATERIALIZED VIEW z_hour USING continuous AS
  SELECT date_trunc('hour', ts) AS h, count(*) AS n, max(ts)::text AS last FROM dst GROUP BY 1;
CREATE MATERIALIZED VIEW z_tumble USING continuous AS
  SELECT window_start, count(*) AS n FROM dst, tumble(ts, '1 day') GROUP BY 1;
SET timezone = 'America/New_York';
CREATE MATERIALIZED VIEW z_named USING continuous AS
  SELECT date_trunc('day', ts, 'Europe/Berlin') AS d, count(*) AS n FROM dst GROUP BY 1;
CREATE MATERIALIZED VIEW z_week USING continuous AS
  SELECT date_trunc('week', ts) AS d, count(*) AS n FROM dst GROUP BY 1;
SET timezone = 'UTC';
CREATE TABLE agg_heap.dst (LIKE dst) USING heap;
CREATE TABLE agg_heap.tz (LIKE tz) USING heap;
INSERT INTO agg_heap.dst SELECT i, ts FROM generate_series(timestamptz '2020-03-27 20:30+00', '2020-03-30 03:30+00', '20 min') WITH ORDINALITY g(ts, i);
INSERT INTO agg_heap.dst SELECT 1000 + i, ts FROM generate_series(timestamptz '2020-10-23 20:30+00', '2020-10-26 10:30+00', '20 min') WITH ORDINALITY g(ts, i);
INSERT INTO agg_heap.tz SELECT id, ts AT TIME ZONE 'UTC', ts - id * interval '1 h' FROM agg_heap.dst;
-- in three transactions, cut in the middle of the changes
INSERT INTO dst SELECT * FROM agg_heap.dst WHERE ts < '2020-03-29 00:50+00';
INSERT INTO dst SELECT * FROM agg_heap.dst WHERE ts >= '2020-03-29 00:50+00' AND ts < '2020-10-25 00:50+00';
INSERT INTO dst SELECT * FROM agg_heap.dst WHERE ts >= '2020-10-25 00:50+00' AND ts < '2020-10-25 01:10+00';
INSERT INTO tz SELECT * FROM agg_heap.tz WHERE at < '2020-03-29 00:50';
INSERT INTO tz SELECT * FROM agg_heap.tz WHERE at >= '2020-03-29 00:50';
SELECT weir.wait_for();
SELECT weir.checkpoint();
-- final are the days and hours that have ended, though they look the same on the clock
SELECT count(*), max(d AT TIME ZONE 'Europe/Berlin') FROM z_day TABLESAMPLE system (100);
SELECT count(*), max(d AT TIME ZONE 'Europe/Berlin') FROM z_named TABLESAMPLE system (100);
SELECT count(*), max(h) FROM z_hour TABLESAMPLE system (100);
SELECT count(*), max(b) FROM t_bin TABLESAMPLE system (100);
INSERT INTO dst SELECT * FROM agg_heap.dst WHERE ts >= '2020-10-25 01:10+00';
SELECT weir.wait_for();
SELECT weir.checkpoint();
SELECT count(*), max(d AT TIME ZONE 'Europe/Berlin') FROM z_day TABLESAMPLE system (100);
SELECT d AT TIME ZONE 'Europe/Berlin' AS d, t, n FROM z_day ORDER BY 1;
SELECT * FROM t_month ORDER BY 1;
SELECT sum(late) AS late FROM weir.views WHERE view::text ~ '^[tz]_';
-- each under the settings it was made with
CREATE FUNCTION zone_differences(zone text, views text) RETURNS TABLE (view name, problem text) LANGUAGE plpgsql AS $$
DECLARE
  batch text;
  n bigint;
BEGIN
  FOR view IN SELECT matviewname FROM pg_matviews WHERE matviewname ~ views LOOP
    PERFORM set_config('timezone', 'UTC', true);
    EXECUTE format('CREATE TEMP TABLE shown_rows AS SELECT * FROM %I', view);
    PERFORM set_config('timezone', zone, true);
    SELECT rtrim(definition, ';') INTO batch FROM pg_matviews WHERE matviewname = view;
    EXECUTE format('SELECT count(*) FROM ((SELECT r::text FROM shown_rows r EXCEPT ALL SELECT r::text FROM (%1$s) r)
      UNION ALL (SELECT r::text FROM (%1$s) r EXCEPT ALL SELECT r::text FROM shown_rows r)) d', batch) INTO n;
    problem := n || ' rows differ';
    RETURN NEXT;
    DROP TABLE shown_rows;
  END LOOP;
END $$;
SELECT * FROM zone_differences('Europe/Berlin', '^(t_month|z_day|z_hour|z_tumble)$') ORDER BY view;
SELECT * FROM zone_differences('America/New_York', '^(z_named|z_week)$') ORDER BY view;
SELECT * FROM zone_differences('UTC', '^(t_bin|t_tumble)$') ORDER BY view;
\if :{?keep}
\q
\endif

DROP TABLE tz, dst CASCADE;
DROP TABLE ev CASCADE;
SELECT count(*) FROM weir.views;
RESET search_path;
DROP SCHEMA agg, agg_heap CASCADE;
