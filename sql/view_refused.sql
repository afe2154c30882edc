-- Every shape of query that a continuous view cannot have is refused when it
-- is created, with a hint; nothing is left behind.
\set VERBOSITY default
SET timezone = 'UTC';
SET client_min_messages = warning;

CREATE TABLE bids (auction bigint, bidder bigint, price numeric, note text,
                   tags text[], made timestamp, ts timestamptz NOT NULL)
  USING stream WITH (event_time = ts);
CREATE TABLE asks (auction bigint, ts timestamptz NOT NULL)
  USING stream WITH (event_time = ts);
CREATE TABLE untimed (a int, ts timestamptz) USING stream;
CREATE TABLE item (id bigint, name text);
CREATE VIEW dear AS SELECT * FROM bids WHERE price > 100;

-- no aggregate
CREATE MATERIALIZED VIEW refused USING continuous AS SELECT auction FROM bids;

-- FROM
CREATE MATERIALIZED VIEW refused USING continuous AS SELECT count(*);
CREATE MATERIALIZED VIEW refused USING continuous AS SELECT count(*) FROM item;
CREATE MATERIALIZED VIEW refused USING continuous AS
  SELECT count(*) FROM generate_series(1, 3);
CREATE MATERIALIZED VIEW refused USING continuous AS
  SELECT name, count(*) FROM bids JOIN item ON auction = id GROUP BY name;
CREATE MATERIALIZED VIEW refused USING continuous AS
  SELECT count(*) FROM item LEFT JOIN dear ON auction = id;
CREATE MATERIALIZED VIEW refused USING continuous AS
  SELECT count(*) FROM bids JOIN asks USING (auction);
CREATE MATERIALIZED VIEW refused USING continuous AS
  SELECT count(*) FROM bids a, bids b;
CREATE MATERIALIZED VIEW refused USING continuous AS
  WITH b AS (SELECT * FROM bids) SELECT count(*) FROM b x, b y;
CREATE MATERIALIZED VIEW refused USING continuous AS
  SELECT tag, count(*) FROM bids, unnest(tags) tag GROUP BY tag;
CREATE MATERIALIZED VIEW refused USING continuous AS
  SELECT count(*) FROM bids, (VALUES (1), (2)) two;
CREATE TABLE parts (a int, ts timestamptz) PARTITION BY LIST (a);
CREATE MATERIALIZED VIEW refused USING continuous AS SELECT count(*) FROM parts;
CREATE TABLE child () INHERITS (asks) USING stream;
CREATE MATERIALIZED VIEW refused USING continuous AS SELECT count(*) FROM asks;
CREATE FOREIGN DATA WRAPPER nowhere;
CREATE SERVER far FOREIGN DATA WRAPPER nowhere;
CREATE FOREIGN TABLE abroad (a int) SERVER far;
CREATE MATERIALIZED VIEW refused USING continuous AS SELECT count(*) FROM abroad;
CREATE MATERIALIZED VIEW total USING continuous AS SELECT count(*) AS n FROM bids;
CREATE MATERIALIZED VIEW refused USING continuous AS SELECT sum(n) FROM total;
CREATE VIEW over_total AS SELECT n FROM total;
CREATE MATERIALIZED VIEW refused USING continuous AS SELECT sum(n) FROM over_total;
CREATE MATERIALIZED VIEW refused USING continuous AS
  SELECT count(*) FROM bids TABLESAMPLE SYSTEM (10);
CREATE MATERIALIZED VIEW refused USING continuous AS
  SELECT count(*) FROM (SELECT auction, count(*) FROM bids GROUP BY auction) q;
CREATE MATERIALIZED VIEW refused USING continuous AS
  SELECT count(*) FROM (SELECT DISTINCT auction FROM bids) q;
CREATE MATERIALIZED VIEW refused USING continuous AS
  SELECT count(*) FROM (SELECT auction FROM bids ORDER BY ts LIMIT 3) q;
CREATE MATERIALIZED VIEW refused USING continuous AS
  SELECT count(*) FROM (SELECT auction FROM bids OFFSET 0) q;
CREATE MATERIALIZED VIEW refused USING continuous AS
  SELECT count(*) FROM (SELECT auction FROM bids UNION ALL SELECT auction FROM asks) q;
CREATE MATERIALIZED VIEW refused USING continuous AS
  SELECT count(*) FROM (SELECT auction FROM bids FOR SHARE) q;

-- clauses
CREATE MATERIALIZED VIEW refused USING continuous AS
  SELECT count(*) FROM bids UNION ALL SELECT count(*) FROM asks;
CREATE MATERIALIZED VIEW refused USING continuous AS
  SELECT DISTINCT auction, count(*) FROM bids GROUP BY auction;
CREATE MATERIALIZED VIEW refused USING continuous AS
  SELECT DISTINCT ON (auction) auction, max(price) FROM bids GROUP BY auction;
CREATE MATERIALIZED VIEW refused USING continuous AS
  SELECT auction, count(*) FROM bids GROUP BY auction ORDER BY auction;
CREATE MATERIALIZED VIEW refused USING continuous AS
  SELECT auction, count(*) FROM bids GROUP BY auction LIMIT 5;
CREATE MATERIALIZED VIEW refused USING continuous AS
  SELECT auction, count(*) FROM bids GROUP BY auction OFFSET 5;
CREATE MATERIALIZED VIEW refused USING continuous AS
  SELECT auction, count(*), rank() OVER (ORDER BY count(*)) FROM bids GROUP BY auction;
CREATE MATERIALIZED VIEW refused USING continuous AS
  SELECT count(*) FROM bids WHERE auction IN (SELECT id FROM item);
CREATE MATERIALIZED VIEW refused USING continuous AS
  SELECT count(*), (SELECT max(id) FROM item) FROM bids;
CREATE MATERIALIZED VIEW refused USING continuous AS
  SELECT count(*) FROM bids HAVING EXISTS (SELECT FROM item);
CREATE MATERIALIZED VIEW refused USING continuous AS
  WITH RECURSIVE r AS (SELECT 1 AS a UNION ALL SELECT a + 1 FROM r WHERE a < 3)
  SELECT count(*) FROM r;
CREATE MATERIALIZED VIEW refused USING continuous AS
  WITH b AS MATERIALIZED (SELECT * FROM bids) SELECT count(*) FROM b;
CREATE MATERIALIZED VIEW refused USING continuous AS
  WITH b AS (INSERT INTO item VALUES (1) RETURNING id) SELECT count(*) FROM b;
CREATE MATERIALIZED VIEW refused USING continuous AS
  SELECT auction, generate_series(1, count(*)) FROM bids GROUP BY auction;

-- columns and types
CREATE MATERIALIZED VIEW refused USING continuous AS SELECT max(ctid) FROM bids;
CREATE MATERIALIZED VIEW refused USING continuous AS
  SELECT count(*) FROM bids WHERE ctid > '(1,1)';
CREATE MATERIALIZED VIEW refused USING continuous AS
  SELECT tableoid AS t, count(*) FROM bids GROUP BY tableoid;
CREATE MATERIALIZED VIEW refused USING continuous AS
  SELECT count(DISTINCT (auction, bidder)) FROM bids;

-- functions
CREATE FUNCTION volatile_add(int, int) RETURNS int LANGUAGE plpgsql
  AS 'BEGIN RETURN $1 + $2; END';
CREATE AGGREGATE volatile_sum(int) (sfunc = volatile_add, stype = int, initcond = '0');
CREATE FUNCTION today() RETURNS timestamptz LANGUAGE sql STABLE
  AS 'SELECT date_trunc(''day'', now())';
CREATE MATERIALIZED VIEW refused USING continuous AS
  SELECT count(*) FROM bids WHERE random() < 0.5;
CREATE MATERIALIZED VIEW refused USING continuous AS
  SELECT sum(volatile_add(1, 2)) FROM bids;
CREATE MATERIALIZED VIEW refused USING continuous AS
  SELECT volatile_add(count(*)::int, 2) FROM bids;
CREATE MATERIALIZED VIEW refused USING continuous AS
  SELECT volatile_sum(auction::int) FROM bids;
CREATE MATERIALIZED VIEW refused USING continuous AS
  SELECT auction, clock_timestamp(), count(*) FROM bids GROUP BY auction;
CREATE MATERIALIZED VIEW refused USING continuous AS
  SELECT count(*) FROM bids WHERE ts > now() - interval '1 hour';
CREATE MATERIALIZED VIEW refused USING continuous AS
  SELECT count(*) FROM bids WHERE ts > today();
CREATE MATERIALIZED VIEW refused USING continuous AS
  SELECT max(ts) > today() AS fresh FROM bids;
CREATE MATERIALIZED VIEW refused USING continuous AS
  SELECT count(*) FROM bids HAVING max(ts) < current_timestamp;
CREATE MATERIALIZED VIEW refused USING continuous AS
  SELECT count(*) FILTER (WHERE made < localtimestamp) FROM bids;
CREATE MATERIALIZED VIEW refused USING continuous AS
  SELECT current_date AS d, count(*) FROM bids;
CREATE MATERIALIZED VIEW refused USING continuous AS
  SELECT max(age(ts)) FROM bids;
CREATE MATERIALIZED VIEW refused USING continuous AS
  SELECT made::time::timetz AS t, count(*) FROM bids GROUP BY 1;
CREATE MATERIALIZED VIEW refused USING continuous AS
  SELECT max(note::timetz AT TIME ZONE 'Europe/Berlin') FROM bids;
CREATE MATERIALIZED VIEW refused USING continuous AS
  SELECT current_user AS me, count(*) FROM bids;
CREATE MATERIALIZED VIEW refused USING continuous AS
  SELECT count(*) FROM bids WHERE note = current_setting('work_mem');
CREATE MATERIALIZED VIEW refused USING continuous AS
  SELECT count(*) FROM bids WHERE bidder = pg_backend_pid();
CREATE MATERIALIZED VIEW refused USING continuous AS
  SELECT count(*) FROM bids WHERE bidder = txid_current();
CREATE MATERIALIZED VIEW refused USING continuous AS
  SELECT count(*) FROM bids WHERE note = host(inet_client_addr());

-- windows
CREATE MATERIALIZED VIEW refused USING continuous AS
  SELECT count(*) FROM bids, tumble(ts, '1 minute');
CREATE MATERIALIZED VIEW refused USING continuous AS
  SELECT auction, count(*) FROM bids, tumble(ts, '1 minute') GROUP BY auction;
CREATE MATERIALIZED VIEW refused USING continuous AS
  SELECT date_trunc('hour', window_start) AS h, count(*)
  FROM bids, tumble(ts, '1 minute') GROUP BY 1;
CREATE MATERIALIZED VIEW refused USING continuous AS
  SELECT a.window_start, b.window_start AS other, count(*)
  FROM bids, tumble(ts, '1 minute') a, tumble(ts, '5 minutes') b GROUP BY 1, 2;
CREATE MATERIALIZED VIEW refused USING continuous AS
  SELECT window_start, count(*) FROM bids, tumble(made, '1 minute') GROUP BY 1;
CREATE MATERIALIZED VIEW refused USING continuous AS
  SELECT window_start, count(*) FROM bids, tumble(ts + '1 hour', '1 minute') GROUP BY 1;
CREATE MATERIALIZED VIEW refused USING continuous AS
  SELECT window_start, count(*) FROM bids, tumble(now() - interval '1 s', '1 minute') GROUP BY 1;
CREATE MATERIALIZED VIEW refused USING continuous AS
  SELECT window_start, count(*) FROM untimed, tumble(ts, '1 minute') GROUP BY 1;
CREATE MATERIALIZED VIEW refused USING continuous AS
  SELECT window_start, count(*) FROM bids, tumble(ts, '1 month') GROUP BY 1;
CREATE MATERIALIZED VIEW refused USING continuous AS
  SELECT window_start, count(*) FROM bids, tumble(ts, '0 s') GROUP BY 1;
CREATE MATERIALIZED VIEW refused USING continuous AS
  SELECT window_start, count(*) FROM bids, tumble(ts, '-1 minute') GROUP BY 1;
CREATE MATERIALIZED VIEW refused USING continuous AS
  SELECT window_start, count(*) FROM bids, tumble(ts, auction * interval '1 s') GROUP BY 1;
CREATE MATERIALIZED VIEW refused USING continuous AS
  SELECT window_start, count(*) FROM bids, tumble(ts, '1 minute', 'infinity') GROUP BY 1;
CREATE MATERIALIZED VIEW refused USING continuous AS
  SELECT date_bin('1 minute', ts, '-infinity') AS m, count(*) FROM bids GROUP BY 1;
CREATE MATERIALIZED VIEW refused USING continuous AS
  SELECT date_bin('1 month', ts, '2000-01-01') AS m, count(*) FROM bids GROUP BY 1;
CREATE MATERIALIZED VIEW refused USING continuous AS
  SELECT date_bin('7 minutes', ts, '2000-01-01') AS a, date_trunc('hour', ts) AS b, count(*)
  FROM bids GROUP BY 1, 2;
CREATE MATERIALIZED VIEW refused USING continuous AS
  SELECT date_trunc('week', ts) AS a, date_trunc('month', ts) AS b, count(*)
  FROM bids GROUP BY 1, 2;

-- rights
CREATE ROLE weir_clerk;
GRANT CREATE, USAGE ON SCHEMA public TO weir_clerk;
REVOKE EXECUTE ON FUNCTION today FROM PUBLIC;
SET ROLE weir_clerk;
CREATE MATERIALIZED VIEW refused USING continuous AS SELECT count(*) FROM bids;
RESET ROLE;
GRANT TRIGGER ON bids, asks TO weir_clerk;
SET ROLE weir_clerk;
CREATE MATERIALIZED VIEW refused USING continuous AS SELECT count(*) FROM bids;
RESET ROLE;
GRANT SELECT (auction, ts) ON bids TO weir_clerk;
GRANT SELECT ON untimed TO weir_clerk;
GRANT TRIGGER ON untimed TO weir_clerk;
ALTER TABLE untimed ENABLE ROW LEVEL SECURITY;
SET ROLE weir_clerk;
CREATE MATERIALIZED VIEW refused USING continuous AS SELECT count(price) FROM bids;
CREATE MATERIALIZED VIEW refused USING continuous AS SELECT count(*) FROM dear;
CREATE MATERIALIZED VIEW refused USING continuous AS
  SELECT count(*) FROM bids WHERE ts > '2000-01-01' AND ts < date_trunc('day', ts) + (today() - today());
CREATE MATERIALIZED VIEW refused USING continuous AS SELECT count(*) FROM untimed;
CREATE MATERIALIZED VIEW allowed USING continuous AS SELECT max(auction) FROM bids;
RESET ROLE;

-- all of it is "not supported" to a program, but for a size that makes no sense
CREATE FUNCTION state_of(query text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
  EXECUTE 'CREATE MATERIALIZED VIEW refused USING continuous AS ' || query;
  RETURN 'accepted';
EXCEPTION WHEN OTHERS THEN RETURN SQLSTATE;
END $$;
SELECT q, state_of(q) FROM unnest(ARRAY[
  'SELECT auction FROM bids',
  'SELECT count(*) FROM item',
  'SELECT count(*) FROM bids a, bids b',
  'SELECT count(*) FROM bids, unnest(tags) tag',
  'SELECT count(*) FROM parts',
  'SELECT sum(n) FROM total',
  'SELECT DISTINCT auction, count(*) FROM bids GROUP BY 1',
  'SELECT window_end, count(*) FROM bids, tumble(ts, ''1 minute'') GROUP BY ROLLUP (1)',
  'SELECT max(ctid) FROM bids',
  'SELECT count(DISTINCT (auction, bidder)) FROM bids',
  'SELECT sum(random()) FROM bids',
  'SELECT current_date, count(*) FROM bids',
  'SELECT count(*) FROM bids, tumble(ts, ''1 minute'')',
  'SELECT window_end FROM bids, tumble(made, ''1 minute'') GROUP BY 1',
  'SELECT window_end FROM bids, tumble(made::date, ''1 day'') GROUP BY 1',
  'SELECT window_end FROM bids, tumble(ts::date, ''1 day'') GROUP BY 1',
  'SELECT window_end + ''1 h'' FROM bids, tumble(ts, ''1 day'') GROUP BY 1',
  'SELECT window_end FROM bids, tumble(ts, NULL) GROUP BY 1',
  'SELECT window_end FROM bids, tumble(ts, ''1 month'') GROUP BY 1',
  'SELECT window_end FROM bids, tumble(ts, ''0 s'') GROUP BY 1']) q;
-- so are sizes of the other windows
SELECT w, state_of(format('SELECT window_end FROM bids, %s GROUP BY 1', w)) FROM unnest(ARRAY[
  'hop(ts, ''5 s'', ''12 s'')',
  'hop(ts, ''10 s'', ''5 s'')',
  'hop(ts, ''0'', ''5 s'')',
  'hop(ts, ''-5 s'', ''5 s'')',
  'hop(ts, ''5 s'', ''0'')',
  'hop(ts, ''5 s'', ''-5 s'')',
  'hop(ts, ''1 month'', ''1 year'')',
  'hop(ts, ''1 day'', ''1 month'')',
  'hop(ts, ''1 us'', ''1 hour'')',
  'hop(ts, ''5 s'', ''10 s'', ''infinity'')',
  'hop(ts, NULL, ''10 s'')',
  'hop(made, ''5 s'', ''10 s'')',
  'cumulate(ts, ''5 s'', ''12 s'')',
  'cumulate(ts, ''10 s'', ''5 s'')',
  'cumulate(ts, ''0'', ''5 s'')',
  'cumulate(ts, ''5 s'', ''-5 s'')',
  'cumulate(ts, ''1 month'', ''1 year'')',
  'cumulate(ts, ''1 day'', ''1 month'')',
  'cumulate(ts, ''1 us'', ''1 hour'')',
  'cumulate(ts, ''5 s'', ''10 s'', ''-infinity'')',
  'cumulate(ts, ''5 s'', NULL)',
  'cumulate(made, ''5 s'', ''10 s'')',
  'session(ts, ''0'')',
  'session(ts, ''-5 s'')',
  'session(ts, ''1 month'')',
  'session(ts, NULL)',
  'session(ts, price * interval ''1 s'')',
  'session(made, ''5 s'')',
  'count_window(0)',
  'count_window(-1)',
  'count_window(5, 0)',
  'count_window(5, -1)',
  'count_window(5, 6)',
  'count_window(2000001, 2)',
  'count_window(NULL)',
  'count_window(auction)']) w;
CREATE FUNCTION hint_of(query text, OUT state text, OUT hint text) LANGUAGE plpgsql AS $$
BEGIN
  EXECUTE 'CREATE MATERIALIZED VIEW refused USING continuous AS ' || query;
  DROP MATERIALIZED VIEW refused;
EXCEPTION WHEN OTHERS THEN GET STACKED DIAGNOSTICS state = RETURNED_SQLSTATE, hint = PG_EXCEPTION_HINT;
END $$;
-- a date is no time, and the hint says how to make it one
SELECT w, state, hint FROM unnest(ARRAY['hop(ts::date, ''1 day'', ''2 days'')', 'cumulate(ts::date, ''1 day'', ''2 days'')', 'session(ts::date, ''1 day'')', 'tumble(ts::date, ''1 day'')']) w,
  hint_of(format('SELECT window_end FROM bids, %s GROUP BY 1', w));
-- what a window is known by late is no condition on an event, wherever it is written; the hint says what is
SELECT w, f, state, hint FROM (VALUES ('session(ts, ''5 s'')', 'window_start > ''2026-01-01'''), ('count_window(5)', 'window_end > 5')) v(w, c),
  unnest(ARRAY['bids, %s WHERE %s', 'bids, %s WHERE %s OR price = 1', 'bids JOIN %s w ON %s', 'bids CROSS JOIN LATERAL %s w WHERE price > 0 AND %s',
    '(SELECT * FROM bids, %s WHERE %s) q', '(SELECT * FROM bids, %s) q WHERE %s']) f,
  hint_of('SELECT window_end, count(*) FROM ' || format(f, w, c) || ' GROUP BY window_start, window_end');
SELECT state, hint FROM hint_of('SELECT window_end, count(*) FILTER (WHERE window_start > 5) FROM bids, count_window(5) GROUP BY window_start, window_end');
-- calendar units cross or nest
SELECT k, state, hint FROM unnest(ARRAY[
  'date_trunc(''week'', ts), date_trunc(''month'', ts)',
  'date_trunc(''year'', ts), date_trunc(''week'', ts)',
  'date_trunc(''decade'', ts), date_trunc(''century'', ts)',
  'date_trunc(''day'', ts, ''Europe/Berlin''), date_trunc(''day'', ts, ''Asia/Tokyo'')',
  'date_trunc(''day'', ts), date_bin(''1 hour'', ts, ''2000-01-01'')',
  'date_bin(''2 hours'', ts, ''2000-01-01''), date_bin(''3 hours'', ts, ''2000-01-01'')',
  'date_bin(''2 hours'', ts, ''2000-01-01''), date_bin(''6 hours'', ts, ''2000-01-01 01:00'')',
  'date_bin(''2 hours'', ts, ''2000-01-01''), date_bin(''6 hours'', ts, ''1999-12-31 22:00'')',
  'date_trunc(''week'', ts), date_trunc(''month'', ts), date_trunc(''day'', ts)',
  'date_trunc(''month'', ts), date_trunc(''year'', ts), date_trunc(''quarter'', ts)']) k, hint_of('SELECT count(*) FROM bids GROUP BY ' || k);
DROP FUNCTION state_of, hint_of;

-- nothing is left of all that
SELECT relname FROM pg_class WHERE relname = 'refused';

-- what looks alike and is accepted
SET client_min_messages = notice;
CREATE MATERIALIZED VIEW ok1 USING continuous AS
  WITH b AS (SELECT auction AS a, ts AS t FROM dear WHERE bidder > 0)
  SELECT window_end, a, a % 2 AS odd, count(*) FROM b, tumble(t, '1 hour', '2000-01-01 00:30+00')
  GROUP BY window_end, a;
CREATE MATERIALIZED VIEW ok2 USING continuous AS
  SELECT date_trunc('day', ts) AS day, date_trunc('hour', ts) AS hour, count(*) FROM bids GROUP BY 1, 2;
CREATE MATERIALIZED VIEW ok3 USING continuous AS
  SELECT date_bin('15 minutes', ts, '2000-01-01') AS q, count(*) FROM bids GROUP BY 1;
CREATE MATERIALIZED VIEW ok4 USING continuous AS
  SELECT date_trunc('hour', ts + '1 hour') AS key_not_window, count(*) FROM bids GROUP BY 1;
CREATE MATERIALIZED VIEW ok5 USING continuous AS
  SELECT auction FROM bids GROUP BY auction HAVING count(*) > 1;
CREATE MATERIALIZED VIEW ok6 USING continuous AS
  SELECT rank(auction) WITHIN GROUP (ORDER BY bidder), count('x'), grouping(auction) FROM bids
  GROUP BY auction;
CREATE MATERIALIZED VIEW ok7 USING continuous AS
  SELECT bids AS whole, count(*) FROM bids GROUP BY bids;
CREATE MATERIALIZED VIEW ok8 USING continuous AS SELECT count(*) FROM ONLY asks;
CREATE MATERIALIZED VIEW ok9 USING continuous AS SELECT count(*) FROM bids WHERE false;

-- domains whose constraints are no function of the value
CREATE DOMAIN d_clock AS bigint CHECK (now() > '2000-01-01');
CREATE DOMAIN d_over AS d_clock CHECK (VALUE > 0);
CREATE DOMAIN d_volatile AS bigint CHECK (random() < 2);
CREATE DOMAIN d_today AS bigint CHECK (today() > '2000-01-01');
CREATE TYPE d_holds AS (x int, y d_over[]);
CREATE DOMAIN d_fine AS bigint CHECK (VALUE >= 0);
CREATE DOMAIN d_self AS bigint;
CREATE FUNCTION made_self(bigint) RETURNS d_self IMMUTABLE LANGUAGE plpgsql AS 'BEGIN RETURN $1; END';
ALTER DOMAIN d_self ADD CHECK (VALUE < 0 OR made_self(-VALUE) < 0);
CREATE MATERIALIZED VIEW refused USING continuous AS SELECT sum(auction::d_clock) FROM bids;
CREATE MATERIALIZED VIEW refused USING continuous AS SELECT auction::d_over, count(*) FROM bids GROUP BY 1;
CREATE MATERIALIZED VIEW refused USING continuous AS SELECT count(*) FROM bids WHERE auction::d_volatile > 0;
CREATE MATERIALIZED VIEW refused USING continuous AS SELECT count(*) FROM bids HAVING count(*)::d_today > 0;
CREATE MATERIALIZED VIEW refused USING continuous AS SELECT count(note::d_clock[]) FROM bids;
CREATE MATERIALIZED VIEW refused USING continuous AS SELECT max((note::d_holds).x) FROM bids;
CREATE MATERIALIZED VIEW refused USING continuous AS
  SELECT max((jsonb_populate_record(NULL::d_holds, note::jsonb)).x) FROM bids;
CREATE MATERIALIZED VIEW ok_domain USING continuous AS SELECT sum(auction::d_fine), min(made_self(auction)) FROM bids;
SELECT weir.wait_for('ok_domain');
-- also later
ALTER DOMAIN d_fine ADD CHECK (now() > '2000-01-01');
INSERT INTO bids (auction, ts) VALUES (1, '2026-01-01');
SELECT weir.wait_for('ok_domain');
SELECT state, error FROM weir.views WHERE view = 'ok_domain'::regclass;
DROP MATERIALIZED VIEW ok_domain;
DROP DOMAIN d_volatile, d_today, d_fine;
DROP DOMAIN d_self CASCADE;
DROP TYPE d_holds;
DROP DOMAIN d_over, d_clock;

DROP MATERIALIZED VIEW ok1, ok2, ok3, ok4, ok5, ok6, ok7, ok8, ok9, allowed;
DROP VIEW over_total, dear;
DROP MATERIALIZED VIEW total;
DROP FOREIGN DATA WRAPPER nowhere CASCADE;
DROP TABLE bids, child, asks, untimed, item, parts;
DROP AGGREGATE volatile_sum(int);
DROP FUNCTION volatile_add, today;
REVOKE ALL ON SCHEMA public FROM weir_clerk;
DROP ROLE weir_clerk;
