-- Attacks, and who may do and see what.
SET timezone = 'UTC';
SET datestyle = 'ISO, MDY';
SET client_min_messages = warning;
CREATE ROLE regress_weir_admin;   -- owns the stream
CREATE ROLE regress_weir_alice;   -- owns views
CREATE ROLE regress_weir_evil;    -- owns hostile views
CREATE ROLE regress_weir_reader;  -- reads views
CREATE ROLE regress_weir_group;
CREATE SCHEMA sec;
CREATE SCHEMA trap;               -- anybody may create here
GRANT USAGE, CREATE ON SCHEMA sec TO regress_weir_admin, regress_weir_alice, regress_weir_evil;
GRANT USAGE ON SCHEMA sec TO regress_weir_reader;
GRANT USAGE, CREATE ON SCHEMA trap TO PUBLIC;
SET search_path = sec, public;
SET ROLE regress_weir_admin;
CREATE TABLE s (a int, secret text, ts timestamptz NOT NULL)
  USING stream WITH (event_time = ts, watermark_delay = '0');
RESET ROLE;
-- what the batch in which v fails, or catches up, shows in the end
CREATE FUNCTION state(v regclass) RETURNS text LANGUAGE plpgsql AS $$
DECLARE r text;
BEGIN
  BEGIN
    IF NOT weir.wait_for(v) THEN RETURN 'timeout'; END IF;
  EXCEPTION WHEN object_not_in_prerequisite_state THEN NULL;
  END;
  SELECT concat_ws(': ', x.state, x.error) INTO r FROM weir.views x WHERE x.view = v;
  RETURN r;
END $$;

-- ---- creating ----
\set QUERY 'SELECT a, count(*) AS n FROM s GROUP BY a'
SET ROLE regress_weir_alice;
CREATE MATERIALIZED VIEW v USING continuous AS :QUERY;
CREATE MATERIALIZED VIEW v USING continuous AS :QUERY WITH NO DATA;
RESET ROLE;
GRANT SELECT ON s TO regress_weir_alice;
SET ROLE regress_weir_alice;
CREATE MATERIALIZED VIEW v USING continuous AS :QUERY;
RESET ROLE;
REVOKE SELECT ON s FROM regress_weir_alice;
GRANT TRIGGER ON s TO regress_weir_alice;
SET ROLE regress_weir_alice;
CREATE MATERIALIZED VIEW v USING continuous AS :QUERY;
CREATE MATERIALIZED VIEW v USING continuous AS SELECT count(*) FROM s;
RESET ROLE;
GRANT SELECT (a, ts) ON s TO regress_weir_alice;
SET ROLE regress_weir_alice;
CREATE MATERIALIZED VIEW v USING continuous AS SELECT a FROM s WHERE secret = 'x' GROUP BY a;
CREATE MATERIALIZED VIEW v USING continuous AS SELECT max(secret) FROM s;
CREATE MATERIALIZED VIEW v USING continuous AS SELECT count(*) FILTER (WHERE secret > 'm') FROM s;
CREATE MATERIALIZED VIEW v USING continuous AS SELECT max(s::text) FROM s;
CREATE MATERIALIZED VIEW v USING continuous AS :QUERY;
-- somebody else's schema
CREATE SCHEMA nope;
CREATE MATERIALIZED VIEW pg_catalog.v USING continuous AS SELECT count(*) FROM s;
CREATE MATERIALIZED VIEW weir.v USING continuous AS SELECT count(*) FROM s;
CREATE TABLE weir.t (ts timestamptz) USING stream;
RESET ROLE;
-- EXECUTE
CREATE FUNCTION admin_only(int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT $1';
REVOKE EXECUTE ON FUNCTION admin_only(int) FROM PUBLIC;
SET ROLE regress_weir_alice;
CREATE MATERIALIZED VIEW x USING continuous AS SELECT max(admin_only(a)) FROM s;
CREATE MATERIALIZED VIEW x USING continuous AS SELECT admin_only(max(a)) FROM s;
CREATE MATERIALIZED VIEW x USING continuous AS SELECT a FROM s GROUP BY a HAVING admin_only(a) > 1;
RESET ROLE;
-- a plain view lends its owner's SELECT, not the TRIGGER
SET ROLE regress_weir_admin;
CREATE VIEW pv AS SELECT a, ts, upper(secret) AS public FROM s WHERE a < 100;
GRANT SELECT ON pv TO regress_weir_alice, regress_weir_evil;
RESET ROLE;
SET ROLE regress_weir_evil;
CREATE MATERIALIZED VIEW e USING continuous AS SELECT max(public) FROM pv;
RESET ROLE;
SET ROLE regress_weir_alice;
CREATE MATERIALIZED VIEW w USING continuous AS SELECT max(public) AS m FROM pv;
RESET ROLE;

-- ---- rights that go, while the view runs, and when it is to start ----
INSERT INTO s VALUES (1, 'one', '2020-01-01'), (2, 'two', '2020-01-01');
SELECT state('v'), state('w');
REVOKE TRIGGER ON s FROM regress_weir_alice;
INSERT INTO s VALUES (1, 'three', '2020-01-01');
SELECT state('v');
SET ROLE regress_weir_alice;
SELECT weir.resume('v');
SELECT weir.wait_for('v');
REFRESH MATERIALIZED VIEW v;
SELECT * FROM v ORDER BY a; -- what it had counted
RESET ROLE;
GRANT TRIGGER ON s TO regress_weir_alice;
SELECT weir.resume('v'), weir.resume('w');
SELECT state('v'), state('w');
REVOKE SELECT (a) ON s FROM regress_weir_alice;
INSERT INTO s VALUES (1, 'four', '2020-01-01');
SELECT state('v'), state('w');
GRANT SELECT (a) ON s TO regress_weir_alice;
SELECT weir.resume('v');
SELECT state('v');
-- of the plain view's owner, and on the plain view
REVOKE SELECT ON pv FROM regress_weir_alice;
INSERT INTO s VALUES (1, 'five', '2020-01-01');
SELECT state('v'), state('w');
GRANT SELECT ON pv TO regress_weir_alice;
SELECT weir.resume('w');
SELECT state('w');
TABLE v ORDER BY a;
-- by membership
GRANT SELECT, TRIGGER ON s TO regress_weir_group;
REVOKE ALL ON s FROM regress_weir_alice;
REVOKE ALL (a, ts) ON s FROM regress_weir_alice;
GRANT regress_weir_group TO regress_weir_alice;
SELECT weir.resume('v');
INSERT INTO s VALUES (1, 'six', '2020-01-01');
SELECT state('v');
GRANT SELECT ON s TO regress_weir_alice;
SELECT state('v');
REVOKE regress_weir_group FROM regress_weir_alice;
INSERT INTO s VALUES (1, 'seven', '2020-01-01');
SELECT state('v');
REVOKE ALL ON s FROM regress_weir_group;
GRANT SELECT, TRIGGER ON s TO regress_weir_alice;
SELECT weir.resume('v'), weir.resume('w');
SELECT state('v'), state('w');
-- of a function, and a function that is no longer what it was
SET ROLE regress_weir_evil;
CREATE FUNCTION lent(int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS 'BEGIN RETURN $1; END';
RESET ROLE;
SET ROLE regress_weir_alice;
CREATE MATERIALIZED VIEW f USING continuous AS SELECT sum(lent(a)) AS x FROM s;
RESET ROLE;
SELECT state('f');
REVOKE EXECUTE ON FUNCTION lent(int) FROM PUBLIC;
INSERT INTO s VALUES (1, 'eight', '2020-01-01');
SELECT state('f');
GRANT EXECUTE ON FUNCTION lent(int) TO PUBLIC;
ALTER FUNCTION lent(int) VOLATILE;
SELECT weir.resume('f');
SELECT state('f');
ALTER FUNCTION lent(int) STABLE;
SELECT weir.resume('f');
SELECT state('f');
SELECT x = (SELECT sum(a) FROM s) AS same FROM f;
DROP FUNCTION lent(int);
-- another owner
ALTER MATERIALIZED VIEW v OWNER TO regress_weir_reader;
GRANT CREATE ON SCHEMA sec TO regress_weir_reader;
GRANT SELECT ON s TO regress_weir_reader;
ALTER MATERIALIZED VIEW v OWNER TO regress_weir_reader;
ALTER TABLE v OWNER TO regress_weir_reader;
REASSIGN OWNED BY regress_weir_alice TO regress_weir_reader;
GRANT TRIGGER ON s TO regress_weir_reader;
ALTER MATERIALIZED VIEW v OWNER TO regress_weir_reader;
INSERT INTO s VALUES (1, 'nine', '2020-01-01');
SELECT state('v');
SET ROLE regress_weir_alice;
SELECT * FROM v;
SELECT weir.pause('v');
RESET ROLE;
ALTER MATERIALIZED VIEW v OWNER TO regress_weir_alice;
REVOKE ALL ON s FROM regress_weir_reader;
REVOKE CREATE ON SCHEMA sec FROM regress_weir_reader;
-- an owner who may not log in, and one who cannot be dropped
ALTER ROLE regress_weir_alice NOLOGIN CONNECTION LIMIT 0 VALID UNTIL '2000-01-01';
INSERT INTO s VALUES (1, 'ten', '2020-01-01');
SELECT state('v');
\set VERBOSITY terse
DROP ROLE regress_weir_alice;
\set VERBOSITY default

-- ---- row security ----
SET ROLE regress_weir_admin;
CREATE POLICY p ON s USING (a > 1);
ALTER TABLE s ENABLE ROW LEVEL SECURITY;
RESET ROLE;
INSERT INTO s VALUES (1, 'eleven', '2020-01-01');
SELECT state('v'), state('w'); -- pv's owner owns s
SET ROLE regress_weir_alice;
SELECT weir.resume('v');
SELECT weir.wait_for('v');
REFRESH MATERIALIZED VIEW v;
CREATE MATERIALIZED VIEW x USING continuous AS SELECT count(*) FROM s;
SET row_security = off;
CREATE MATERIALIZED VIEW x USING continuous AS SELECT count(*) FROM s;
RESET row_security;
RESET ROLE;
SET ROLE regress_weir_admin;
CREATE MATERIALIZED VIEW x USING continuous AS SELECT count(*) = (SELECT 1) FROM s;
CREATE MATERIALIZED VIEW x USING continuous AS SELECT count(*) AS n FROM s;
ALTER TABLE s FORCE ROW LEVEL SECURITY;
RESET ROLE;
INSERT INTO s VALUES (1, 'twelve', '2020-01-01');
SELECT state('x');
SELECT state('w');
-- who may bypass it, until he may not
ALTER ROLE regress_weir_alice BYPASSRLS;
SELECT weir.resume('v');
SELECT state('v');
ALTER ROLE regress_weir_alice NOBYPASSRLS;
INSERT INTO s VALUES (1, 'thirteen', '2020-01-01');
SELECT state('v');
ALTER TABLE s NO FORCE ROW LEVEL SECURITY;
ALTER TABLE s DISABLE ROW LEVEL SECURITY;
DROP POLICY p ON s;
SELECT weir.resume('v'), weir.resume('w'), weir.resume('x');
SELECT state('v'), state('w'), state('x');
SELECT n = (SELECT count(*) FROM s) AS same FROM x;
DROP MATERIALIZED VIEW x, f;

-- ---- what a stranger sees ----
SET ROLE regress_weir_reader;
SELECT * FROM v;
SELECT n FROM v;
SELECT count(*) FROM v;
COPY v TO STDOUT;
EXPLAIN SELECT * FROM v;
EXPLAIN ANALYZE SELECT * FROM v;
SELECT weir.explain('v');
SELECT weir.watermark('v'), weir.watermark('s');
SELECT weir.watermark('s');
SELECT weir.is_final('v', now());
SELECT weir.advance_watermark('s', '2020-01-01');
SELECT weir.pause('v');
SELECT weir.resume('v');
SELECT weir.pause('pg_catalog.pg_class');
SELECT weir.checkpoint();
\set VERBOSITY sqlstate
REFRESH MATERIALIZED VIEW v;
REFRESH MATERIALIZED VIEW v WITH NO DATA;
\set VERBOSITY default
ALTER MATERIALIZED VIEW v SET (on_error = skip);
ALTER MATERIALIZED VIEW v RENAME TO mine;
ALTER TABLE s SET (retention = '1 s');
DROP MATERIALIZED VIEW v;
TRUNCATE s;
INSERT INTO s VALUES (1, 'x', '2020-01-01');
SELECT count(*) FROM weir.views;
SELECT count(*) FROM weir.streams;
SELECT count(*) FROM weir.errors;
SELECT views FROM weir.workers WHERE views <> '{}';
-- tables of the extension
SELECT c.relname, has_table_privilege(c.oid, 'SELECT') OR has_any_column_privilege(c.oid, 'SELECT') AS s,
  has_table_privilege(c.oid, 'INSERT, UPDATE, DELETE, TRUNCATE, REFERENCES, TRIGGER') AS w
FROM pg_class c WHERE c.relnamespace = 'weir'::regnamespace AND c.relkind IN ('r', 'v', 'S') ORDER BY 1;
SELECT has_schema_privilege('weir', 'CREATE');
DELETE FROM weir.view_wish;
INSERT INTO weir.error_log (view, generation, stream, sqlstate, message, at) VALUES (1, 1, 1, '', '', now());
-- functions
SELECT p.oid::regprocedure FROM pg_proc p
WHERE p.pronamespace = 'weir'::regnamespace AND NOT has_function_privilege(p.oid, 'EXECUTE') ORDER BY p.oid::regprocedure::text COLLATE "C";
SELECT p.oid::regprocedure FROM pg_proc p JOIN pg_depend d ON d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e'
WHERE d.refobjid = (SELECT oid FROM pg_extension WHERE extname = 'pg_weir')
  AND (p.prosecdef OR p.proleakproof
    OR (NOT p.proisstrict AND p.prolang = (SELECT oid FROM pg_language WHERE lanname = 'c')
      AND p.proname NOT IN ('wait_for', 'first_accum', 'last_accum', 'first_last_final', 'tumble', 'hop', 'cumulate',
      'session', 'count_window', 'count_event_start', 'count_event_end', 'session_start', 'session_end', 'count_window_start', 'count_window_end', 'count_windows')));
SELECT weir.first_accum(NULL, 1, now());
CREATE AGGREGATE trap.forged(int, timestamptz) (SFUNC = weir.first_accum, STYPE = bytea, INITCOND = '\x00');
RESET ROLE;
-- the reader of a view: that, and nothing of the stream or of the errors
GRANT SELECT ON v TO regress_weir_reader;
SET ROLE regress_weir_reader;
SELECT * FROM v ORDER BY a;
SELECT weir.watermark('v') IS NOT NULL AS w, (SELECT count(*) FROM weir.views) AS views, (SELECT count(*) FROM weir.streams) AS streams;
SELECT * FROM s;
SELECT * FROM pv;
RESET ROLE;
REVOKE SELECT ON v FROM regress_weir_reader;
GRANT SELECT (a) ON v TO regress_weir_reader;
SET ROLE regress_weir_reader;
SELECT a FROM v ORDER BY a;
SELECT n FROM v;
SELECT a FROM v WHERE n > 1;
-- a plan is kept, a right is not
PREPARE plan AS SELECT a FROM v WHERE a = 2;
EXECUTE plan;
RESET ROLE;
REVOKE SELECT (a) ON v FROM regress_weir_reader;
SET ROLE regress_weir_reader;
EXECUTE plan;
RESET ROLE;
EXECUTE plan;
SET ROLE regress_weir_evil;
EXECUTE plan;
DEALLOCATE plan;
RESET ROLE;
REVOKE ALL ON v FROM regress_weir_reader;

-- ---- C functions with odd arguments, as superuser ----
SELECT weir.first_accum('\x01', 1, now());
SELECT weir.first_last_final('\x0102030405060708090a0b0c0d0e0f10', 1, now());
SELECT weir.first_last_final(NULL, ''::text, now());
SELECT weir.tumble_start(NULL, NULL, NULL::timestamptz) IS NULL AS null;
SELECT weir.tumble_start('2020-01-01'::timestamptz, '-1 s', '2020-01-01');
SELECT weir.watermark(0);
SELECT weir.pause(0);
SELECT weir.is_final(0, now());
SELECT weir.explain(1);
SELECT weir.watermark('pg_class_oid_index');
SELECT weir.errors_visible(0), weir.errors_visible(NULL);

-- ---- errors and their events ----
SET ROLE regress_weir_alice;
CREATE MATERIALIZED VIEW er USING continuous WITH (on_error = skip) AS SELECT sum(1 / a) AS x FROM s;
CREATE MATERIALIZED VIEW es USING continuous AS SELECT sum(1 / a) AS x FROM s;
CREATE MATERIALIZED VIEW ep USING continuous WITH (on_error = skip) AS SELECT sum(1 / a) AS x FROM pv;
GRANT SELECT ON er, es, ep TO regress_weir_reader;
RESET ROLE;
SELECT state('er'), state('es'), state('ep');
BEGIN;
REVOKE SELECT ON s FROM regress_weir_alice;
GRANT SELECT (a, ts) ON s TO regress_weir_alice;
COMMIT;
INSERT INTO s VALUES (0, 'top secret', '2020-01-02');
SELECT state('es');
SELECT state('er'), state('ep');
SELECT weir.checkpoint();
REVOKE SELECT (a, ts) ON s FROM regress_weir_alice;
SELECT weir.resume('w');
INSERT INTO s VALUES (0, 'top secret', '2020-01-03');
SELECT state('ep');
SELECT weir.checkpoint();
SET ROLE regress_weir_alice;
SELECT view, event, sqlstate, message FROM weir.errors WHERE view IN ('er'::regclass, 'es'::regclass, 'ep'::regclass) AND message LIKE '%zero%' ORDER BY view::text, id;
RESET ROLE;
SET ROLE regress_weir_reader;
SELECT view, event, sqlstate, message FROM weir.errors WHERE sqlstate = '22012' ORDER BY view::text, id;
SELECT view, state, error FROM weir.views ORDER BY view::text;
-- what is shown is not seen by functions of the reader before it is filtered
CREATE FUNCTION trap.peek(text) RETURNS bool LANGUAGE plpgsql COST 0.0001 AS 'BEGIN RAISE WARNING ''peeked at %'', $1; RETURN true; END';
SELECT count(*) FROM weir.errors WHERE trap.peek(message) AND sqlstate <> '22012';
RESET ROLE;
GRANT SELECT ON s TO regress_weir_alice;
SELECT weir.resume('v');
DROP MATERIALIZED VIEW er, es, ep;
SELECT count(*) FROM weir.error_log e WHERE NOT EXISTS (SELECT FROM pg_class c WHERE c.oid = e.view);
-- a long message of many bytes a character
SET ROLE regress_weir_alice;
CREATE FUNCTION say(int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS 'BEGIN RAISE ''x%'', repeat(''ü'', 300); END';
CREATE MATERIALIZED VIEW long USING continuous AS SELECT sum(say(a)) FROM s;
RESET ROLE;
SELECT state('long') ~ '^failed: xü{127}$' AS whole;
DROP MATERIALIZED VIEW long;

-- ---- names that are found elsewhere ----
-- a trap on every name an unwary function could use
SET ROLE regress_weir_evil;
CREATE FUNCTION trap.lower(text) RETURNS text LANGUAGE plpgsql IMMUTABLE AS 'BEGIN RETURN ''trapped '' || current_user; END';
CREATE FUNCTION trap.eq(int, int) RETURNS bool LANGUAGE plpgsql IMMUTABLE AS 'BEGIN RAISE ''trapped %'', current_user; END';
CREATE FUNCTION trap.count(anyelement) RETURNS bigint LANGUAGE sql IMMUTABLE AS 'SELECT -1::bigint';
CREATE OPERATOR trap.= (leftarg = int, rightarg = int, function = trap.eq, commutator = OPERATOR(trap.=), hashes, merges);
CREATE OPERATOR trap.> (leftarg = bigint, rightarg = int, function = pg_catalog.int84lt);
RESET ROLE;
SET ROLE regress_weir_alice;
CREATE FUNCTION down(text) RETURNS text LANGUAGE plpgsql STABLE AS 'BEGIN RETURN lower($1); END';
CREATE FUNCTION one(int) RETURNS bool LANGUAGE plpgsql STABLE AS 'BEGIN RETURN $1 = 1; END';
CREATE FUNCTION ams(anyelement) RETURNS bigint LANGUAGE plpgsql STABLE AS 'BEGIN RETURN (SELECT count(*) FROM pg_am WHERE amname = ''stream''); END';
CREATE MATERIALIZED VIEW h USING continuous AS
  SELECT window_start, a, down(max(secret)) AS final, max(down(secret)) AS input, ams(count(*)) AS ams, count(*) AS n
  FROM s, tumble(ts, '1 minute') WHERE one(a) AND a = 1 GROUP BY window_start, a HAVING one(a) AND count(*) > 0;
GRANT SELECT ON h TO regress_weir_reader;
RESET ROLE;
SELECT state('h');
SET search_path = trap, pg_catalog, sec;
SET ROLE regress_weir_reader;
CREATE TEMP TABLE pg_am (amname text);
CREATE FUNCTION pg_temp.lower(text) RETURNS text LANGUAGE plpgsql IMMUTABLE AS 'BEGIN RETURN ''trapped''; END';
SELECT sec.h.* FROM sec.h ORDER BY window_start;
SELECT h.* FROM sec.h WHERE a OPERATOR(pg_catalog.=) 1 AND window_start OPERATOR(pg_catalog.=) '2020-01-01';
SHOW search_path;
RESET ROLE;
INSERT INTO sec.s VALUES (1, 'LATER', '2020-01-03');
SELECT sec.state('sec.h');
SELECT weir.checkpoint();
SELECT sec.h.* FROM sec.h ORDER BY window_start;
REFRESH MATERIALIZED VIEW sec.h;
SELECT sec.state('sec.h');
SELECT sec.h.* FROM sec.h ORDER BY window_start;
DROP TABLE pg_am;
-- what was taken at CREATE stays: here the trap itself
SET ROLE regress_weir_alice;
SET search_path = trap, pg_catalog, sec, public;
CREATE MATERIALIZED VIEW sec.caught USING continuous AS SELECT lower(max(secret)) AS l FROM s;
SET search_path = sec, public;
SELECT * FROM caught;
SELECT pg_get_viewdef('caught') LIKE '%trap.lower%' AS caught;
DROP MATERIALIZED VIEW caught;
RESET ROLE;
DROP MATERIALIZED VIEW h;

-- ---- what functions of a view may not do ----
CREATE TABLE report (stage text, who name, command text, result text);
GRANT INSERT, SELECT ON report TO regress_weir_evil;
GRANT SELECT, TRIGGER ON s TO regress_weir_evil;
SET ROLE regress_weir_evil;
CREATE TABLE mine (x int);
CREATE FUNCTION fired() RETURNS trigger LANGUAGE plpgsql AS
  'BEGIN INSERT INTO sec.report VALUES (''late'', current_user, ''deferred trigger'', ''ran''); RETURN NULL; END';
CREATE CONSTRAINT TRIGGER late AFTER INSERT ON mine DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION fired();
CREATE FUNCTION attempt(stage text, command text) RETURNS void LANGUAGE plpgsql AS $$
DECLARE result text := 'OK';
BEGIN
  BEGIN
    EXECUTE command;
  EXCEPTION WHEN OTHERS THEN
    result := SQLSTATE;
  END;
  INSERT INTO sec.report VALUES (stage, current_user, command, result);
EXCEPTION WHEN read_only_sql_transaction THEN NULL;
END $$;
CREATE FUNCTION attack(stage text, x anyelement) RETURNS anyelement LANGUAGE plpgsql STABLE AS $$
DECLARE c text;
BEGIN
  FOREACH c IN ARRAY ARRAY[
    'SET ROLE regress_weir_admin', 'RESET ROLE', 'SET SESSION AUTHORIZATION DEFAULT',
    'SELECT pg_catalog.set_config(''role'', ''none'', false)',
    'SET LOCAL session_replication_role = replica',
    'CREATE TEMP TABLE t (x int)', 'CREATE TEMP VIEW t AS SELECT 1',
    'DECLARE c CURSOR WITH HOLD FOR SELECT 1', 'PREPARE p AS SELECT 1', 'DEALLOCATE ALL',
    'LISTEN l', 'UNLISTEN *', 'DISCARD ALL', 'INSERT INTO sec.mine VALUES (1)', 'COMMIT',
    'SET search_path = trap', 'SELECT pg_catalog.set_config(''TimeZone'', ''Asia/Tokyo'', false)',
    'SELECT pg_catalog.set_config(''my.mine'', ''x'', false)',
    'SELECT 1 FROM weir.view_position', 'UPDATE weir.view_wish SET wanted = ''s''',
    'SELECT pg_catalog.pg_read_file(''PG_VERSION'')', 'COPY sec.report TO PROGRAM ''cat''',
    'SELECT weir.checkpoint()', 'DROP MATERIALIZED VIEW sec.v', 'TRUNCATE sec.s'
    ] LOOP
    PERFORM sec.attempt(stage, c);
  END LOOP;
  RETURN x;
END $$;
CREATE MATERIALIZED VIEW e USING continuous AS
  SELECT window_start, sum(attack('input', a)) AS x, attack('final', count(*)) AS n
  FROM s, tumble(ts, '1 day') WHERE a = 2 GROUP BY window_start HAVING attack('having', true);
CREATE FUNCTION attack_index(bigint) RETURNS bigint LANGUAGE plpgsql IMMUTABLE AS 'BEGIN RETURN sec.attack(''index'', $1); END';
CREATE INDEX ON e (attack_index(x));
GRANT SELECT ON e TO regress_weir_reader;
RESET ROLE;
SELECT state('e');
SELECT weir.checkpoint();
SELECT DISTINCT stage, who FROM report ORDER BY 1;
SELECT command, string_agg(DISTINCT result, ' | ' ORDER BY result) AS result FROM report GROUP BY command ORDER BY command COLLATE "C";
SELECT count(*) FROM mine;
-- in the reader's session, who may do all of it himself
INSERT INTO s VALUES (2, 'live', '2020-01-04');
SELECT state('e');
BEGIN;
DELETE FROM report;
DECLARE c CURSOR FOR SELECT x, n FROM e ORDER BY window_start;
FETCH ALL FROM c;
SELECT DISTINCT stage, who FROM report WHERE stage IN ('final', 'having') ORDER BY 1;
SELECT count(*) > 0 AS some, count(*) FILTER (WHERE result = 'OK' AND command !~ 'set_config|search_path') AS done FROM report WHERE stage IN ('final', 'having');
SELECT current_user = session_user AS same, current_setting('TimeZone'), current_setting('search_path'), coalesce(current_setting('my.mine', true), '') = '' AS mine;
COMMIT;
SELECT count(*) FROM mine;
SET ROLE regress_weir_reader;
BEGIN READ ONLY;
SELECT sum(x), sum(n) FROM e;
COMMIT;
SELECT current_user;
RESET ROLE;
DROP MATERIALIZED VIEW e;

-- functions of the clock, the session, the transaction; volatile ones
SET ROLE regress_weir_alice;
CREATE MATERIALIZED VIEW x USING continuous AS SELECT max(random()) FROM s;
CREATE MATERIALIZED VIEW x USING continuous AS SELECT max(a) FROM s WHERE ts < now();
CREATE MATERIALIZED VIEW x USING continuous AS SELECT max(current_user::text) FROM s;
CREATE MATERIALIZED VIEW x USING continuous AS SELECT max(current_setting('role')) FROM s;
CREATE MATERIALIZED VIEW x USING continuous AS SELECT max(pg_backend_pid()) FROM s;
CREATE MATERIALIZED VIEW x USING continuous AS SELECT count(*), session_user FROM s;
CREATE MATERIALIZED VIEW x USING continuous AS SELECT max(set_config('role', 'none', false)) FROM s;
CREATE MATERIALIZED VIEW x USING continuous AS SELECT count(*) FROM s HAVING pg_sleep(1) IS NULL;
CREATE MATERIALIZED VIEW x USING continuous AS SELECT count(*) FROM s WHERE nextval('weir.error_log_id_seq') > 0;
RESET ROLE;

-- a function that runs as its own owner
SET ROLE regress_weir_admin;
CREATE TABLE vault (secret text);
INSERT INTO vault VALUES ('gold');
CREATE FUNCTION open_vault(int) RETURNS text LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
  AS 'SELECT secret || '' for '' || current_user FROM sec.vault';
CREATE FUNCTION closed_vault(int) RETURNS text LANGUAGE sql STABLE AS 'SELECT secret FROM sec.vault';
RESET ROLE;
SET ROLE regress_weir_alice;
CREATE MATERIALIZED VIEW d USING continuous AS SELECT max(open_vault(a)) AS i, open_vault(1) AS f, count(*) > 0 AS n FROM s;
CREATE MATERIALIZED VIEW c USING continuous AS SELECT max(closed_vault(a)) AS i, count(*) AS n FROM s;
CREATE MATERIALIZED VIEW cf USING continuous AS SELECT closed_vault(1) AS f, count(*) AS n FROM s;
GRANT SELECT ON cf TO regress_weir_admin;
RESET ROLE;
SELECT state('d'), state('c'), state('cf');
TABLE d;
SET ROLE regress_weir_admin;
TABLE cf; -- as alice, not as the reader
RESET ROLE;
DROP MATERIALIZED VIEW d, c, cf;

-- ---- queries inside a view's functions ----
CREATE TABLE other (x int) USING stream;
INSERT INTO other VALUES (41), (42);
GRANT SELECT ON other TO regress_weir_alice;
SET ROLE regress_weir_alice;
CREATE FUNCTION count_same(int) RETURNS bigint LANGUAGE plpgsql STABLE AS 'BEGIN RETURN (SELECT count(secret) FROM sec.s WHERE ts < ''2020-01-02''); END';
CREATE FUNCTION max_other(int) RETURNS int LANGUAGE plpgsql STABLE AS 'BEGIN RETURN (SELECT max(x) FROM sec.other); END';
CREATE MATERIALIZED VIEW q USING continuous AS SELECT min(count_same(a)) AS same, max(max_other(a)) AS other, count(*) AS n FROM s;
RESET ROLE;
SELECT state('q');
SELECT same = (SELECT count(*) FROM s WHERE ts < '2020-01-02') AS same, other, n = (SELECT count(*) FROM s) AS n FROM q;
DROP MATERIALIZED VIEW q;

-- ---- settings ----
SET ROLE regress_weir_alice;
CREATE FUNCTION env(anyelement) RETURNS text LANGUAGE plpgsql STABLE AS $$
BEGIN
  RETURN concat_ws(' ', current_user, current_setting('search_path'), current_setting('TimeZone'), current_setting('DateStyle'),
    current_setting('IntervalStyle'), current_setting('extra_float_digits'), current_setting('bytea_output'),
    current_setting('row_security'), current_setting('session_replication_role'), current_setting('transform_null_equals'),
    current_setting('array_nulls'), 1e15::float8 / 3, '2020-02-01'::timestamptz, '1 day 2 h'::interval, '\x41ff'::bytea);
END $$;
SET TimeZone = 'Asia/Tokyo';
SET DateStyle = 'German, DMY';
SET IntervalStyle = 'iso_8601';
SET extra_float_digits = -5;
SET bytea_output = 'escape';
CREATE MATERIALIZED VIEW z USING continuous AS
  SELECT window_start, max(env(a)) AS input, env(count(*)) AS final, max(ts)::text AS t, date_trunc('day', max(ts)) AS d
  FROM s, tumble(ts, '1 day') WHERE a = 0 GROUP BY window_start HAVING max(ts)::text LIKE '%JST';
GRANT SELECT ON z TO regress_weir_reader;
RESET ROLE;
RESET ALL;
SET timezone = 'UTC';
SET datestyle = 'ISO, MDY';
SET client_min_messages = warning;
SET search_path = sec, public;
SELECT state('z');
SELECT weir.checkpoint();
INSERT INTO s VALUES (0, 'now', '2020-01-05');
SELECT state('z');
\x
SELECT * FROM z ORDER BY window_start;
SET session_replication_role = replica;
SET ROLE regress_weir_reader;
SET search_path = trap;
SET TimeZone = 'America/New_York';
SET DateStyle = 'SQL, MDY';
SET IntervalStyle = 'sql_standard';
SET extra_float_digits = 3;
SET row_security = off;
SET transform_null_equals = on;
SET array_nulls = off;
SET default_transaction_read_only = on;
SELECT z.* FROM sec.z;
\x
SELECT current_setting('TimeZone') AS mine, current_setting('row_security') AS too;
RESET ROLE;
RESET ALL;
SET timezone = 'UTC';
SET datestyle = 'ISO, MDY';
SET client_min_messages = warning;
SET search_path = sec, public;
-- the option that carries them
SET ROLE regress_weir_evil;
CREATE MATERIALIZED VIEW x USING continuous WITH (settings = 'session_replication_role=''replica''') AS SELECT count(*) FROM s;
CREATE MATERIALIZED VIEW x USING continuous WITH (settings = 'TimeZone=''UTC'' log_statement=''all''') AS SELECT count(*) FROM s;
CREATE MATERIALIZED VIEW x USING continuous WITH (settings = 'role=''postgres''') AS SELECT count(*) FROM s;
CREATE MATERIALIZED VIEW x USING continuous WITH (settings = 'TimeZone=UTC') AS SELECT count(*) FROM s;
CREATE MATERIALIZED VIEW x USING continuous WITH (settings = 'TimeZone=''UTC') AS SELECT count(*) FROM s;
CREATE MATERIALIZED VIEW x USING continuous WITH (settings = 'TimeZone=''nowhere''') AS SELECT count(*) FROM s;
CREATE MATERIALIZED VIEW x USING continuous WITH (settings = 'TimeZone=''UTC'', DateStyle=''ISO''') AS SELECT count(*) FROM s;
CREATE MATERIALIZED VIEW x USING continuous AS SELECT count(*) FROM s;
ALTER MATERIALIZED VIEW x SET (settings = 'session_replication_role=''replica''');
ALTER TABLE x SET (settings = '');
ALTER MATERIALIZED VIEW x RESET (settings);
ALTER MATERIALIZED VIEW x SET (weir.settings = 'x');
ALTER MATERIALIZED VIEW x SET ("Settings" = 'x');
DROP MATERIALIZED VIEW x;
-- some of them: the others are those of CREATE
SET TimeZone = 'Asia/Tokyo';
CREATE MATERIALIZED VIEW x USING continuous WITH (settings = 'DateStyle=''ISO, MDY''') AS SELECT max(ts)::text AS t FROM s WHERE a = 0;
RESET TimeZone;
SET TimeZone = 'UTC';
SELECT weir.wait_for('x');
TABLE x;
DROP MATERIALIZED VIEW x;
RESET ROLE;
-- a quote in a value
SET TimeZone = '<it''s>+01';
CREATE MATERIALIZED VIEW x USING continuous AS SELECT max(ts)::text AS t FROM s WHERE a = 0;
SET TimeZone = 'UTC';
SELECT state('x');
TABLE x;
DROP MATERIALIZED VIEW x, z;

-- ---- aggregates and types that are exchanged under a view ----
SET ROLE regress_weir_evil;
-- bytes that are an array of 268435456 int8 to who believes it
CREATE FUNCTION as_bytes(bytea, int) RETURNS bytea LANGUAGE sql IMMUTABLE AS $$SELECT '\x0100000000000000140000000000001001000000'::bytea$$;
CREATE FUNCTION end_bytes(bytea) RETURNS text LANGUAGE sql IMMUTABLE AS 'SELECT $1::text';
CREATE AGGREGATE shift(int) (SFUNC = as_bytes, STYPE = bytea, FINALFUNC = end_bytes);
CREATE MATERIALIZED VIEW r USING continuous AS SELECT a, shift(a) AS x FROM s WHERE a = 2 GROUP BY a;
RESET ROLE;
SELECT state('r');
SET ROLE regress_weir_evil;
CREATE FUNCTION as_array(int8[], int) RETURNS int8[] LANGUAGE sql IMMUTABLE AS 'SELECT $1';
CREATE FUNCTION end_array(int8[]) RETURNS text LANGUAGE sql IMMUTABLE AS 'SELECT $1[200000000]::text';
CREATE OR REPLACE AGGREGATE shift(int) (SFUNC = as_array, STYPE = int8[], FINALFUNC = end_array);
SELECT * FROM r;
SELECT * FROM r WHERE a = 2;
RESET ROLE;
INSERT INTO s VALUES (2, 'x', '2020-01-05');
SELECT state('r');
SET ROLE regress_weir_evil;
SELECT weir.resume('r');
SELECT weir.wait_for('r');
SELECT * FROM r;
REFRESH MATERIALIZED VIEW r;
SELECT weir.wait_for('r');
SELECT * FROM r;
-- a type under the name of another
CREATE DOMAIN kept AS bytea;
CREATE FUNCTION as_kept(kept, int) RETURNS kept LANGUAGE sql IMMUTABLE AS $$SELECT '\x0100000000000000140000000000001001000000'::sec.kept$$;
CREATE FUNCTION end_kept(kept) RETURNS text LANGUAGE sql IMMUTABLE AS 'SELECT $1::text';
CREATE AGGREGATE swap(int) (SFUNC = as_kept, STYPE = kept, FINALFUNC = end_kept);
CREATE MATERIALIZED VIEW r2 USING continuous AS SELECT swap(a) AS x FROM s WHERE a = 2;
-- and the columns of one that is kept in states, and in keys that are not shown
CREATE TYPE pair AS (x int8, y int8);
CREATE FUNCTION as_pair(pair, int) RETURNS pair LANGUAGE sql IMMUTABLE AS 'SELECT 1048576::int8, $2::int8';
CREATE FUNCTION end_pair(pair) RETURNS text LANGUAGE sql IMMUTABLE AS 'SELECT ($1).x::text';
CREATE FUNCTION to_pair(int) RETURNS pair LANGUAGE sql IMMUTABLE STRICT AS 'SELECT 1048576::int8, $1::int8';
CREATE AGGREGATE pairs(int) (SFUNC = as_pair, STYPE = pair, FINALFUNC = end_pair);
CREATE MATERIALIZED VIEW r3 USING continuous AS SELECT pairs(a) AS x FROM s WHERE a = 2;
CREATE MATERIALIZED VIEW r4 USING continuous AS SELECT count(*) AS n FROM s WHERE a = 2 GROUP BY to_pair(a);
CREATE MATERIALIZED VIEW r5 USING continuous AS SELECT weir.last(to_pair(a), ts)::text AS x FROM s WHERE a = 2;
RESET ROLE;
SELECT state('r2'), state('r3'), state('r4'), state('r5');
SELECT weir.checkpoint();
SET ROLE regress_weir_evil;
TABLE r3;
ALTER TYPE kept RENAME TO kept_before;
CREATE DOMAIN kept AS int8[];
CREATE FUNCTION as_kept(kept, int) RETURNS kept LANGUAGE sql IMMUTABLE AS 'SELECT $1';
CREATE FUNCTION end_kept(kept) RETURNS text LANGUAGE sql IMMUTABLE AS 'SELECT ($1::int8[])[200000000]::text';
CREATE OR REPLACE AGGREGATE swap(int) (SFUNC = as_kept, STYPE = kept, FINALFUNC = end_kept);
SELECT * FROM r2;
ALTER TYPE pair ALTER ATTRIBUTE x TYPE text;
SELECT * FROM r3;
SELECT * FROM r4;
SELECT * FROM r5;
RESET ROLE;
INSERT INTO s VALUES (2, 'x', '2020-01-05');
SELECT state('r2'), state('r3'), state('r4'), state('r5');
DROP MATERIALIZED VIEW r, r2, r3, r4, r5;
-- rules, triggers, columns: core refuses
CREATE OR REPLACE RULE "_RETURN" AS ON SELECT TO v DO INSTEAD SELECT 1 AS a, count(*) AS n FROM s GROUP BY secret;
CREATE TRIGGER t AFTER INSERT ON v EXECUTE FUNCTION fired();
-- of several views the detail names the one that happens to be found first
\set VERBOSITY terse
ALTER TABLE s ALTER COLUMN a TYPE text;
\set VERBOSITY default
INSERT INTO v VALUES (1, 1);
DELETE FROM v;

-- ---- names ----
CREATE ROLE "regress_weir r""o'l;e";
CREATE SCHEMA "s""c'h;
--";
GRANT ALL ON SCHEMA "s""c'h;
--" TO "regress_weir r""o'l;e";
SET ROLE "regress_weir r""o'l;e";
SET search_path = "s""c'h;
--", public;
CREATE TABLE "ström""'; DROP TABLE x; --
" ("select" int, "tïme""'
" timestamptz NOT NULL, "user" text)
  USING stream WITH (event_time = 'tïme"''
', watermark_delay = '0');
CREATE MATERIALIZED VIEW "v""'; DROP TABLE x; --
ü" USING continuous WITH (on_error = skip) AS
  SELECT window_start AS "w""i'n;", "select" AS "group", count(*) AS "table", sum(1 / "select")
  FROM "ström""'; DROP TABLE x; --
", tumble("tïme""'
", '1 min') GROUP BY 1, 2;
\set k abcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrstuvwxyzabcdefghij
CREATE TABLE :"k" (abcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrstuvwxyzabcdefghij1 timestamptz NOT NULL, :"k" int)
  USING stream WITH (event_time = abcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrstuvwxyzabcdefghij1, watermark_delay = '0');
CREATE MATERIALIZED VIEW abcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrstuvwxyzabcdefghijv
  USING continuous AS SELECT :"k" AS abcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrstuvwxyzabcdefghijc, count(*) FROM :"k" GROUP BY 1;
INSERT INTO "ström""'; DROP TABLE x; --
" VALUES (1, '2020-01-01', 'x'), (0, '2020-01-01', 'ÿ'), (1, '2020-01-02', 'x');
INSERT INTO :"k" VALUES ('2020-01-01', 7);
SELECT weir.wait_for('"v""''; DROP TABLE x; --
ü"'), weir.wait_for('abcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrstuvwxyzabcdefghijv');
RESET ROLE;
SELECT weir.checkpoint();
TABLE abcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrstuvwxyzabcdefghijv;
SELECT view, stream, event, message FROM weir.errors WHERE view = '"v""''; DROP TABLE x; --
ü"'::regclass;
SET ROLE "regress_weir r""o'l;e";
EXPLAIN (costs off) SELECT * FROM "v""'; DROP TABLE x; --
ü" WHERE "group" = 1;
SELECT * FROM weir.explain('"v""''; DROP TABLE x; --
ü"') e WHERE e ~ '^(Stream|Key|Window)';
-- renamed under the running view
ALTER TABLE "ström""'; DROP TABLE x; --
" RENAME COLUMN "tïme""'
" TO "order";
ALTER TABLE "ström""'; DROP TABLE x; --
" RENAME TO "limit";
ALTER MATERIALIZED VIEW "v""'; DROP TABLE x; --
ü" RENAME TO "analyze";
-- and others in their places
CREATE TABLE "ström""'; DROP TABLE x; --
" (x int) USING stream;
CREATE MATERIALIZED VIEW "v""'; DROP TABLE x; --
ü" AS SELECT 1;
INSERT INTO "limit" VALUES (1, '2020-01-03', 'x');
SELECT weir.wait_for('"analyze"');
COPY "analyze" TO STDOUT;
REFRESH MATERIALIZED VIEW "analyze";
SELECT weir.wait_for('"analyze"');
TABLE "analyze" ORDER BY 1;
-- a stream of the old name is another one
DROP TABLE "limit" CASCADE;
CREATE TABLE "limit" ("order" timestamptz NOT NULL) USING stream;
CREATE MATERIALIZED VIEW "analyze" USING continuous AS SELECT count(*) FROM "limit";
SELECT weir.wait_for('"analyze"');
TABLE "analyze";
RESET ROLE;
SET search_path = sec, public;
DROP OWNED BY "regress_weir r""o'l;e";
DROP SCHEMA "s""c'h;
--" CASCADE;
DROP ROLE "regress_weir r""o'l;e";

-- ---- the end: an owner goes, and his views with him ----
SELECT state('v');
\set VERBOSITY terse
DROP OWNED BY regress_weir_alice CASCADE;
SELECT count(*) FROM weir.view_wish w WHERE NOT EXISTS (SELECT FROM pg_class c WHERE c.oid = w.view);
DROP SCHEMA trap CASCADE;
DROP SCHEMA sec CASCADE;
DROP OWNED BY regress_weir_admin, regress_weir_evil, regress_weir_reader, regress_weir_group CASCADE;
DROP ROLE regress_weir_admin, regress_weir_alice, regress_weir_evil, regress_weir_reader, regress_weir_group;
