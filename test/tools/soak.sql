-- What test/tools/soak runs: streams and views whose windows open and close all
-- the time, and what works on them.  All of it is of a bounded size: keys,
-- open windows, sessions and the logs; only final rows grow, on disk.
SET client_min_messages = warning;
CREATE EXTENSION pg_weir;
CREATE SCHEMA soak;
SET search_path = soak, public;

CREATE TABLE ev (id bigint, k int, v int, note text, ts timestamptz NOT NULL) USING stream
	WITH (event_time = ts, watermark_delay = '1 second', max_future = infinity, retention_size = '2MB');
CREATE TABLE ord (id bigint, k int, v int) USING stream WITH (retention_size = '2MB');
CREATE TABLE cut (k int, v int) USING stream;

CREATE MATERIALIZED VIEW totals USING continuous AS
	SELECT k, count(*) AS n, sum(v) AS s, avg(v) AS mean, max(note) AS note, count(DISTINCT v % 10) AS d, stddev(v) AS sd FROM ev GROUP BY k;
CREATE MATERIALIZED VIEW per_window USING continuous WITH (late_table = 'late_events') AS
	SELECT window_start, k, count(*) AS n, sum(v) AS s, max(note) AS note FROM ev, tumble(ts, '1 second') GROUP BY window_start, k;
CREATE INDEX ON per_window (window_start, k);
CREATE MATERIALIZED VIEW hops USING continuous WITH (allowed_lateness = '1 second') AS
	SELECT window_start, window_end, k, count(*) AS n, min(v) AS lo FROM ev, hop(ts, '1 second', '4 seconds') GROUP BY window_start, window_end, k;
CREATE MATERIALIZED VIEW grows USING continuous AS
	SELECT window_start, window_end, count(*) AS n FROM ev, cumulate(ts, '1 second', '5 seconds') GROUP BY window_start, window_end;
CREATE MATERIALIZED VIEW sessions USING continuous AS
	SELECT window_start, window_end, k, count(*) AS n, sum(v) AS s FROM ev, session(ts, '200 ms') GROUP BY window_start, window_end, k;
-- each key comes once
CREATE MATERIALIZED VIEW visits USING continuous AS
	SELECT window_start, window_end, id / 1000 AS visit, count(*) AS n FROM ev, session(ts, '200 ms') GROUP BY window_start, window_end, id / 1000;
CREATE MATERIALIZED VIEW finals USING continuous WITH (emit = final) AS
	SELECT window_start, k % 5 AS k5, count(*) AS n, percentile_disc(0.5) WITHIN GROUP (ORDER BY v) AS mid FROM ev, tumble(ts, '2 seconds') GROUP BY window_start, k % 5 HAVING count(*) > 1;
CREATE MATERIALIZED VIEW arrays USING continuous AS
	SELECT window_start, array_agg(id) AS ids, string_agg(DISTINCT note, ',' ORDER BY note) AS notes FROM ev, tumble(ts, '1 second') WHERE k % 10 = 0 GROUP BY window_start;
CREATE MATERIALIZED VIEW arrivals USING continuous AS
	SELECT window_start, count(*) AS n FROM ev, tumble(now(), '1 second') GROUP BY window_start;
CREATE MATERIALIZED VIEW counted USING continuous AS
	SELECT window_start, window_end, k, count(*) AS n, sum(v) AS s FROM ord, count_window(50, 25) GROUP BY window_start, window_end, k;
CREATE MATERIALIZED VIEW sets USING continuous AS
	SELECT k, v % 3 AS v3, grouping(k, v % 3) AS g, count(*) AS n FROM ord GROUP BY ROLLUP (k, v % 3);
CREATE MATERIALIZED VIEW of_cut USING continuous AS SELECT k, sum(v) AS s FROM cut GROUP BY k;

CREATE SEQUENCE transactions;

-- A few transactions of every kind; not more, because a call that commits often
-- leaves something in the memory of PL/pgSQL each time until it ends.
CREATE PROCEDURE write() LANGUAGE plpgsql AS $$
DECLARE
	n bigint;
BEGIN
	FOR i IN 1 .. 100 LOOP
		n := nextval('soak.transactions');
		INSERT INTO soak.ev SELECT n * 1000 + x, (random() * 40)::int, (random() * 1000)::int,
				repeat('n', (random() * 40)::int), clock_timestamp() - random() * interval '900 ms'
			FROM generate_series(1, CASE WHEN n % 20 = 0 THEN 400 ELSE 5 END) x;
		IF n % 50 = 0 THEN	-- late, a large value
			INSERT INTO soak.ev VALUES (n, 1, 1, repeat(md5(n::text), 500), clock_timestamp() - interval '1 min');
		END IF;
		IF n % 3 = 0 THEN
			BEGIN
				INSERT INTO soak.ord SELECT n, x, n FROM generate_series(1, 10) x;
				IF n % 2 = 0 THEN RAISE division_by_zero; END IF;
			EXCEPTION WHEN division_by_zero THEN
				INSERT INTO soak.ord VALUES (n, 0, n);
			END;
		END IF;
		IF n % 7 = 0 THEN
			INSERT INTO soak.cut VALUES (n % 10, n);
		END IF;
		IF n % 11 = 0 THEN ROLLBACK; ELSE COMMIT; END IF;
		PERFORM pg_sleep(0.03);
	END LOOP;
END $$;

CREATE PROCEDURE read() LANGUAGE plpgsql AS $$
DECLARE
	name text;
BEGIN
	FOR i IN 1 .. 10 LOOP
		FOREACH name IN ARRAY ARRAY['totals', 'hops', 'grows', 'finals', 'arrivals', 'counted', 'sets', 'sessions', 'arrays', 'per_window'] LOOP
			EXECUTE format('SELECT count(*) FROM soak.%I %s', name,
				CASE WHEN name IN ('per_window', 'arrays', 'sessions', 'hops') THEN 'WHERE window_start > now() - interval ''10 s''' END);
			COMMIT;
		END LOOP;
		PERFORM count(*) FROM weir.views, weir.explain('soak.hops');
		PERFORM count(*) FROM weir.streams;
		COMMIT;
		PERFORM pg_sleep(0.5);
	END LOOP;
END $$;
