--
-- CREATE, ALTER, REFRESH, DROP of continuous views: options, refusals, rights
--
CREATE FUNCTION options_of(rel regclass) RETURNS SETOF text LANGUAGE sql AS
$$ SELECT o FROM pg_class, unnest(reloptions) o
   WHERE oid = rel AND o NOT LIKE 'settings=%' ORDER BY 1 $$;
CREATE FUNCTION wish(rel regclass) RETURNS text LANGUAGE sql AS
$$ SELECT wanted::text || ' ' || CASE WHEN relispopulated THEN 'populated' ELSE 'empty' END
   FROM weir.view_wish w JOIN pg_class c ON c.oid = w.view WHERE w.view = rel $$;

CREATE TABLE s (a int, ts timestamptz NOT NULL, b text) USING stream
  WITH (event_time = ts, watermark_delay = '0');
INSERT INTO s SELECT i % 3, timestamptz '2026-01-01 00:00 UTC' + i * interval '10 s', 'x'
  FROM generate_series(0, 59) i;

-- the native statement, its options, its settings
CREATE MATERIALIZED VIEW v USING continuous AS
  SELECT a, count(*) AS n FROM s GROUP BY a;
CREATE MATERIALIZED VIEW w USING continuous
  WITH (allowed_lateness = '1 minute', retention = '7 days', fillfactor = 70) AS
  SELECT window_start, a, count(*) AS n FROM s, tumble(ts, '1 minute')
  GROUP BY window_start, a;
SELECT weir.wait_for('v'), weir.wait_for('w');
SELECT * FROM v ORDER BY a;
SELECT window_start AT TIME ZONE 'UTC' AS ws, a, n FROM w ORDER BY 1, 2 LIMIT 4;
SELECT * FROM options_of('w');
SELECT o LIKE '%TimeZone=%' AS frozen FROM pg_class, unnest(reloptions) o
  WHERE oid = 'v'::regclass AND o LIKE 'settings=%';
SELECT pg_get_viewdef('w'::regclass);
SELECT amname, relkind FROM pg_class c JOIN pg_am a ON a.oid = relam
  WHERE c.oid = 'v'::regclass;
SELECT wish('v');

-- names follow
ALTER TABLE s RENAME b TO note;
ALTER TABLE s RENAME TO events;
ALTER MATERIALIZED VIEW v RENAME n TO total;
ALTER MATERIALIZED VIEW v RENAME TO totals;
CREATE SCHEMA elsewhere;
ALTER MATERIALIZED VIEW totals SET SCHEMA elsewhere;
INSERT INTO events VALUES (0, '2026-01-01 00:10 UTC', 'y');
SELECT weir.wait_for('elsewhere.totals');
SELECT total FROM elsewhere.totals ORDER BY a;
ALTER MATERIALIZED VIEW elsewhere.totals SET SCHEMA public;
ALTER MATERIALIZED VIEW totals RENAME TO v;
ALTER TABLE events RENAME TO s;
DROP SCHEMA elsewhere;

-- options that make no sense, or none to anybody
CREATE MATERIALIZED VIEW x USING continuous WITH (allowed_lateness = '1 s') AS
  SELECT a, count(*) FROM s GROUP BY a;
CREATE MATERIALIZED VIEW x USING continuous WITH (emit = final) AS
  SELECT a, count(*) FROM s GROUP BY a;
CREATE MATERIALIZED VIEW x USING continuous WITH (retention = '1 day') AS
  SELECT a, count(*) FROM s GROUP BY a;
CREATE MATERIALIZED VIEW x USING continuous WITH (late_table = 'late') AS
  SELECT a, count(*) FROM s GROUP BY a;
CREATE MATERIALIZED VIEW x USING continuous WITH (retention = '1 day') AS
  SELECT count(*) FROM s, tumble(ts, '1 minute') GROUP BY window_end;
CREATE MATERIALIZED VIEW x USING continuous WITH (emit = sometimes) AS
  SELECT window_end, count(*) FROM s, tumble(ts, '1 minute') GROUP BY 1;
CREATE MATERIALIZED VIEW x USING continuous WITH (on_error = ignore) AS
  SELECT a, count(*) FROM s GROUP BY a;
CREATE MATERIALIZED VIEW x USING continuous WITH (allowed_lateness = '5') AS
  SELECT window_end, count(*) FROM s, tumble(ts, '1 minute') GROUP BY 1;
CREATE MATERIALIZED VIEW x USING continuous WITH (event_time = ts) AS
  SELECT a, count(*) FROM s GROUP BY a;
SELECT count(*) FROM pg_class WHERE relname = 'x';

-- ALTER
ALTER MATERIALIZED VIEW w SET (emit = final, fillfactor = 60);
ALTER MATERIALIZED VIEW w RESET (emit, retention);
ALTER MATERIALIZED VIEW w SET (allowed_lateness = infinity, on_error = skip);
SELECT * FROM options_of('w');
ALTER MATERIALIZED VIEW w SET (emit = never);
ALTER MATERIALIZED VIEW w SET (settings = 'x');
ALTER MATERIALIZED VIEW w RESET (settings);
ALTER MATERIALIZED VIEW v SET (emit = final);
ALTER MATERIALIZED VIEW v SET ACCESS METHOD heap;
ALTER TABLE s RESET (event_time);
ALTER TABLE s SET (event_time = ts);
SELECT * FROM options_of('w');
CREATE MATERIALIZED VIEW plain AS SELECT 1 AS a;
ALTER MATERIALIZED VIEW plain SET ACCESS METHOD continuous;
REFRESH MATERIALIZED VIEW plain;
DROP MATERIALIZED VIEW plain;

-- columns the view needs
ALTER TABLE s DROP COLUMN a;
ALTER TABLE s DROP COLUMN note;

-- indexes: UNIQUE only where the groups are told apart
CREATE INDEX ON v (total);
CREATE UNIQUE INDEX ON v (total);
CREATE UNIQUE INDEX ON v (a);
CREATE UNIQUE INDEX ON v (a, total);
CREATE UNIQUE INDEX ON v ((a + 1));
CREATE UNIQUE INDEX ON w (a);
CREATE UNIQUE INDEX ON w (window_start) INCLUDE (a);
CREATE UNIQUE INDEX ON w (a, window_start);
REINDEX TABLE w;

-- EXPLAIN, IF NOT EXISTS
EXPLAIN CREATE MATERIALIZED VIEW x USING continuous AS SELECT count(*) FROM s;
EXPLAIN ANALYZE CREATE MATERIALIZED VIEW x USING continuous AS
  SELECT count(*) FROM s;
CREATE MATERIALIZED VIEW stopped USING continuous AS
  SELECT count(*) AS n FROM s WITH NO DATA;
SELECT wish('stopped');
CREATE MATERIALIZED VIEW IF NOT EXISTS stopped USING continuous AS
  SELECT count(*) AS n FROM s;
SELECT wish('stopped');
SELECT * FROM stopped;
SELECT weir.wait_for('stopped');

-- REFRESH starts, rebuilds, stops
REFRESH MATERIALIZED VIEW stopped;
SELECT weir.wait_for('stopped');
SELECT wish('stopped');
SELECT * FROM stopped;
REFRESH MATERIALIZED VIEW CONCURRENTLY stopped;
REFRESH MATERIALIZED VIEW stopped;
SELECT weir.wait_for('stopped');
SELECT * FROM stopped;
REFRESH MATERIALIZED VIEW w;
SELECT weir.wait_for('w');
SELECT count(*), sum(n) FROM w;
BEGIN;
REFRESH MATERIALIZED VIEW stopped WITH NO DATA;
ROLLBACK;
SELECT * FROM stopped;
REFRESH MATERIALIZED VIEW stopped WITH NO DATA;
SELECT wish('stopped');
SELECT * FROM stopped;
SELECT count(*) FROM weir.view_position WHERE view = 'stopped'::regclass;
SELECT count(*) FROM weir.view_state WHERE view = 'stopped'::regclass;
REFRESH MATERIALIZED VIEW stopped;
SELECT weir.wait_for('stopped');
SELECT * FROM stopped;
BEGIN READ ONLY;
REFRESH MATERIALIZED VIEW v;
ROLLBACK;

-- COPY reads final and live rows
COPY stopped TO STDOUT;
COPY stopped (n) TO STDOUT WITH (FORMAT csv, HEADER);
COPY v FROM STDIN;
\.

-- what core refuses
TRUNCATE v;
INSERT INTO v VALUES (1, 1);
DELETE FROM v;
DROP TABLE v;

-- rights: the owner's, now and from the next owner on
CREATE ROLE regress_weir_owner;
CREATE ROLE regress_weir_heir;
GRANT CREATE ON SCHEMA public TO regress_weir_owner, regress_weir_heir;
SET ROLE regress_weir_owner;
CREATE MATERIALIZED VIEW x USING continuous AS SELECT count(*) FROM s;
RESET ROLE;
GRANT SELECT ON s TO regress_weir_owner;
SET ROLE regress_weir_owner;
CREATE MATERIALIZED VIEW x USING continuous AS SELECT count(*) FROM s;
RESET ROLE;
GRANT TRIGGER ON s TO regress_weir_owner;
SET ROLE regress_weir_owner;
CREATE MATERIALIZED VIEW x USING continuous AS SELECT count(*) AS n FROM s;
SELECT weir.wait_for('x');
SELECT * FROM x;
ALTER MATERIALIZED VIEW v SET (on_error = skip);
\set VERBOSITY sqlstate
REFRESH MATERIALIZED VIEW v;
\set VERBOSITY default
SELECT * FROM v;
RESET ROLE;
ALTER MATERIALIZED VIEW x OWNER TO regress_weir_heir;
REASSIGN OWNED BY regress_weir_owner TO regress_weir_heir;
GRANT SELECT, TRIGGER ON s TO regress_weir_heir;
ALTER MATERIALIZED VIEW x OWNER TO regress_weir_heir;
-- a stopped view reads nothing: the new owner is judged when it starts
REFRESH MATERIALIZED VIEW x WITH NO DATA;
REVOKE TRIGGER ON s FROM regress_weir_owner;
ALTER MATERIALIZED VIEW x OWNER TO regress_weir_owner;
REFRESH MATERIALIZED VIEW x;
DROP OWNED BY regress_weir_owner, regress_weir_heir;
DROP ROLE regress_weir_owner, regress_weir_heir;
SELECT count(*) FROM pg_class WHERE relname = 'x';

-- DROP leaves nothing behind
DROP MATERIALIZED VIEW stopped;
DROP TABLE s;
BEGIN;
DROP TABLE s CASCADE;
ROLLBACK;
SELECT weir.wait_for('v');
SELECT sum(total) FROM v;
DROP TABLE s CASCADE;
SELECT count(*) FROM weir.view_wish;
SELECT count(*) FROM weir.view_position;
SELECT count(*) FROM weir.view_state;
SELECT count(*) FROM weir.view_pending;
DROP FUNCTION options_of, wish;

-- a plain view in FROM is replaced by one with another window: the groups that are there mean nothing for it
SET client_min_messages = error;
CREATE TABLE rw (k int, ts timestamptz) USING stream WITH (event_time = ts, watermark_delay = '0');
CREATE VIEW rw_bin AS SELECT k, window_start AS ws FROM rw, tumble(ts, '1 hour');
CREATE VIEW rw_count AS SELECT k, window_start AS ws FROM rw, count_window(2);
CREATE VIEW rw_ses AS SELECT k, ts, window_start AS ws FROM rw, tumble(ts, '1 hour');
CREATE VIEW rw_key AS SELECT date_trunc('hour', ts + interval '0') AS ws FROM rw;
CREATE MATERIALIZED VIEW rw_1 USING continuous AS SELECT k, ws, count(*) AS n FROM rw_bin GROUP BY k, ws;
CREATE MATERIALIZED VIEW rw_2 USING continuous AS SELECT k, ws, count(*) AS n FROM rw_count GROUP BY k, ws;
CREATE MATERIALIZED VIEW rw_3 USING continuous AS SELECT ws, count(*) AS n FROM rw_key GROUP BY ws;
CREATE MATERIALIZED VIEW rw_4 USING continuous AS SELECT k, ws, count(*) AS n, max(ts::text) AS m FROM rw_ses GROUP BY k, ws;
INSERT INTO rw VALUES (1, '2026-01-01 05:10Z'), (2, '2026-01-01 05:10Z');
SELECT weir.wait_for();
CREATE OR REPLACE VIEW rw_bin AS SELECT k, window_start AS ws FROM rw, tumble(ts, '2 hours');
CREATE OR REPLACE VIEW rw_count AS SELECT k, window_start AS ws FROM rw, count_window(3);
CREATE OR REPLACE VIEW rw_ses AS SELECT k, ts, window_start AS ws FROM rw, session(ts, '10 minutes');
CREATE OR REPLACE VIEW rw_key AS SELECT date_trunc('hour', ts) AS ws FROM rw;
INSERT INTO rw VALUES (1, '2026-01-01 05:20Z');
\set VERBOSITY terse
SELECT weir.wait_for('rw_1');
SELECT weir.wait_for('rw_2');
SELECT weir.wait_for('rw_3');
SELECT weir.wait_for('rw_4');
TABLE rw_4;
\set VERBOSITY default
SELECT view, state, error FROM weir.views WHERE view::text ~ '^rw' ORDER BY view::text;
-- and is right when it has been rebuilt
REFRESH MATERIALIZED VIEW rw_1;
REFRESH MATERIALIZED VIEW rw_2;
REFRESH MATERIALIZED VIEW rw_3;
REFRESH MATERIALIZED VIEW rw_4;
SELECT weir.wait_for();
SELECT view, CASE view::text
    WHEN 'rw_1' THEN NOT EXISTS (SELECT k, window_start, count(*) FROM rw, tumble(ts, '2 hours') GROUP BY 1, 2 EXCEPT ALL TABLE rw_1)
    WHEN 'rw_2' THEN NOT EXISTS (SELECT k, window_start, count(*) FROM rw, count_window(3) GROUP BY 1, 2 EXCEPT ALL TABLE rw_2)
    WHEN 'rw_3' THEN NOT EXISTS (SELECT date_trunc('hour', ts), count(*) FROM rw GROUP BY 1 EXCEPT ALL TABLE rw_3)
    WHEN 'rw_4' THEN NOT EXISTS (SELECT k, window_start, count(*), max(ts::text) FROM rw, session(ts, '10 minutes') GROUP BY 1, 2 EXCEPT ALL TABLE rw_4) END AS sound
  FROM weir.views WHERE view::text ~ '^rw' ORDER BY view::text;
DROP TABLE rw CASCADE;
RESET client_min_messages;
