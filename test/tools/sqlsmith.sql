-- What test/tools/sqlsmith queries: streams, views of every shape, late tables.
SET client_min_messages = warning;
CREATE EXTENSION pg_weir;
CREATE ROLE owner;
CREATE ROLE smith LOGIN;
CREATE ROLE writer LOGIN;
ALTER ROLE smith SET statement_timeout = '500ms';
ALTER ROLE smith SET lock_timeout = '50ms';
CREATE SCHEMA smith AUTHORIZATION owner;
GRANT USAGE ON SCHEMA smith TO smith, writer;
REVOKE ALL ON SCHEMA public FROM smith;
GRANT USAGE ON SCHEMA public TO PUBLIC;
SET ROLE owner;
SET search_path = smith, public;

CREATE TYPE pair AS (x int, y text);
CREATE DOMAIN positive AS int CHECK (VALUE > 0);
CREATE TABLE ev (id bigint GENERATED ALWAYS AS IDENTITY, k int, t text, j jsonb, n numeric, f float8, p pair,
	a int[], u uuid DEFAULT gen_random_uuid(), i inet, ts timestamptz NOT NULL, twice int GENERATED ALWAYS AS (k * 2) STORED)
	USING stream WITH (event_time = ts, watermark_delay = '1 hour');
CREATE TABLE local (k positive, ts timestamp NOT NULL) USING stream WITH (event_time = ts, watermark_delay = '0');
CREATE TABLE untimed (k int, b bytea) USING stream;
CREATE TABLE parts (k int, v text) PARTITION BY LIST (k);
CREATE TABLE part_0 PARTITION OF parts FOR VALUES IN (0) USING stream;
CREATE TABLE part_1 PARTITION OF parts DEFAULT;
CREATE TABLE plain (k int PRIMARY KEY, name text, since timestamptz);
INSERT INTO plain SELECT i, 'name ' || i, '2020-01-01'::timestamptz + i * interval '1 min' FROM generate_series(0, 30) i;

CREATE MATERIALIZED VIEW by_key USING continuous AS
	SELECT k, count(*) AS n, sum(n) AS s, avg(f) AS f, max(t) AS t, array_agg(k) AS ks, jsonb_agg(j) AS js FROM ev GROUP BY k;
CREATE UNIQUE INDEX ON by_key (k);
CREATE MATERIALIZED VIEW total USING continuous AS SELECT count(*) AS n, stddev(n) AS d, bool_or(k > 3) AS b FROM ev;
CREATE MATERIALIZED VIEW of_types USING continuous AS
	SELECT p, a, i, j -> 'k' AS jk, count(*) AS n, weir.first(t, ts) AS first, weir.last(u, ts) AS last FROM ev GROUP BY 1, 2, 3, 4;
CREATE MATERIALIZED VIEW minutes USING continuous AS
	SELECT window_start, window_end, k, count(*) AS n, percentile_cont(0.5) WITHIN GROUP (ORDER BY f) AS m
	FROM ev, tumble(ts, '1 minute') GROUP BY window_start, window_end, k HAVING count(*) > 1;
CREATE INDEX ON minutes (window_start);
CREATE MATERIALIZED VIEW days USING continuous AS SELECT date_trunc('day', ts) AS day, count(DISTINCT k) AS ks, mode() WITHIN GROUP (ORDER BY t) AS m FROM ev GROUP BY 1;
CREATE MATERIALIZED VIEW hops USING continuous AS
	SELECT window_start, window_end, k, sum(k) AS s FROM ev, hop(ts, '1 minute', '5 minutes') GROUP BY window_start, window_end, k;
CREATE MATERIALIZED VIEW grows USING continuous AS
	SELECT window_start, window_end, max(f) AS m FROM ev, cumulate(ts, '10 minutes', '1 hour') GROUP BY window_start, window_end;
CREATE MATERIALIZED VIEW sessions USING continuous AS
	SELECT window_start, window_end, k, count(*) AS n FROM ev, session(ts, '10 seconds') GROUP BY window_start, window_end, k;
CREATE MATERIALIZED VIEW counts USING continuous AS
	SELECT window_start, window_end, k, count(*) AS n, string_agg(t, ',' ORDER BY t) AS t FROM ev, count_window(5, 2) GROUP BY window_start, window_end, k;
CREATE MATERIALIZED VIEW sets USING continuous AS
	SELECT k, t, grouping(k, t) AS g, count(*) AS n FROM ev GROUP BY ROLLUP (k, t);
CREATE MATERIALIZED VIEW arrivals USING continuous AS
	SELECT window_start, count(*) AS n FROM ev, tumble(now(), '10 seconds') GROUP BY window_start;
CREATE MATERIALIZED VIEW late USING continuous WITH (late_table = 'late_events', allowed_lateness = '1 second') AS
	SELECT window_end, k, count(*) AS n FROM local, tumble(ts, '10 seconds') GROUP BY window_end, k;
CREATE MATERIALIZED VIEW finals USING continuous WITH (emit = final) AS
	SELECT window_start, sum(k) AS s FROM local, tumble(ts, '10 seconds') GROUP BY window_start;
CREATE MATERIALIZED VIEW skips USING continuous WITH (on_error = skip) AS SELECT sum(10 / k) AS s FROM untimed;
CREATE MATERIALIZED VIEW of_part USING continuous AS SELECT v, count(*) AS n FROM part_0 GROUP BY v;

-- joins with plain tables, plain views over all of it
CREATE VIEW named AS SELECT p.name, m.* FROM minutes m JOIN plain p USING (k);
CREATE VIEW barrier WITH (security_barrier) AS SELECT * FROM ev WHERE k < 5;
CREATE VIEW invoker WITH (security_invoker) AS SELECT b.k, b.n, p.since FROM by_key b LEFT JOIN plain p ON p.k = b.k;
CREATE VIEW batch_sessions AS SELECT window_start, window_end, k, count(*) AS n FROM ev, session(ts, '10 seconds') GROUP BY window_start, window_end, k;
CREATE VIEW batch_counts AS SELECT window_start, window_end, k, count(*) AS n FROM ev, count_window(5, 2) GROUP BY window_start, window_end, k;
CREATE VIEW batch_hops AS SELECT window_start, window_end, k, count(*) AS n FROM ev, hop(ts, '1 minute', '5 minutes') GROUP BY window_start, window_end, k;
CREATE POLICY odd ON plain USING (k % 2 = 1);
ALTER TABLE plain ENABLE ROW LEVEL SECURITY;

GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA smith TO smith;
GRANT INSERT ON ev, local, untimed, parts TO writer;
GRANT SELECT ON late_events TO smith;
RESET ROLE;

CREATE TABLE stop (now bool NOT NULL);
INSERT INTO stop VALUES (false);
GRANT SELECT ON stop TO writer;
CREATE PROCEDURE write() LANGUAGE plpgsql AS $$
BEGIN
	WHILE NOT (SELECT now FROM smith.stop) LOOP
		INSERT INTO smith.ev (k, t, j, n, f, p, a, i, ts)
			SELECT i % 7, 'text ' || i % 3, jsonb_build_object('k', i % 2), i, random(), ROW(i % 2, 'y')::smith.pair, ARRAY[i % 3],
				'10.0.0.0'::inet + i % 2, now() - random() * interval '30 min'
			FROM generate_series(1, 4) i;
		INSERT INTO smith.local SELECT i, now() AT TIME ZONE 'UTC' - random() * interval '1 min' FROM generate_series(1, 2) i;
		INSERT INTO smith.untimed VALUES ((random() * 3)::int, '\x00');
		INSERT INTO smith.parts VALUES ((random() * 2)::int, 'v');
		COMMIT;
		PERFORM pg_sleep(0.2);
	END LOOP;
END $$;
INSERT INTO ev (k, t, j, n, f, p, a, i, ts) SELECT i % 7, 'text ' || i % 3, jsonb_build_object('k', i % 2), i, random(), ROW(i % 2, 'y')::smith.pair,
	ARRAY[i % 3], '10.0.0.0'::inet + i % 2, now() - i * interval '1 min' FROM generate_series(1, 50) i;
ANALYZE;
