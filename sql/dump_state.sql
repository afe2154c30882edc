-- The table through which pg_dump carries the state of views: who reads and
-- writes it, what is refused, what a damaged dump does.
SET timezone = 'UTC';
SET datestyle = 'ISO';
CREATE ROLE ds_owner;
CREATE ROLE ds_other;
GRANT CREATE, USAGE ON SCHEMA public TO ds_owner, ds_other;
SET ROLE ds_owner;
CREATE TABLE ds (k int, n numeric, ts timestamptz NOT NULL)
  USING stream WITH (event_time = ts, watermark_delay = '0');
CREATE MATERIALIZED VIEW ds_w USING continuous AS
  SELECT window_start, k, count(*) AS n, sum(k) AS s FROM ds, tumble(ts, '1 minute') GROUP BY window_start, k;
CREATE MATERIALIZED VIEW ds_n USING continuous AS SELECT k, sum(n) AS s FROM ds GROUP BY k;
INSERT INTO ds SELECT i % 2, i, timestamptz '2026-01-01 00:00Z' + i * interval '20 s' FROM generate_series(1, 6) i;
SELECT weir.wait_for();
RESET ROLE;
SELECT weir.checkpoint();

-- what there is, for owner and superuser; nothing for others
SELECT view, part, count(*) FROM weir.view_dump GROUP BY view, part ORDER BY view, part;
SET ROLE ds_owner;
SELECT view, part, data FROM weir.view_dump WHERE part IN ('group', 'final', 'end') AND view = 'public.ds_w' ORDER BY view, part, data;
SELECT data[1], data[4:] FROM weir.view_dump WHERE part = 'view' ORDER BY view;
SET ROLE ds_other;
SELECT * FROM weir.view_dump;
RESET ROLE;

-- what it is not
UPDATE weir.view_dump SET part = 'x';
DELETE FROM weir.view_dump;
SELECT view FROM weir.view_dump FOR UPDATE;
SELECT view FROM weir.view_dump TABLESAMPLE system (100);
SELECT view FROM weir.view_dump WHERE ctid = '(0,1)';
CREATE INDEX ON weir.view_dump (view);
INSERT INTO weir.view_dump VALUES ('x', 'view', '{}') ON CONFLICT DO NOTHING;
VACUUM weir.view_dump;
VACUUM FULL weir.view_dump;
ANALYZE weir.view_dump;
SELECT count(*) FROM weir.view_dump;
BEGIN;
DECLARE c SCROLL CURSOR FOR SELECT view FROM weir.view_dump WHERE part = 'view' ORDER BY view;
FETCH ALL FROM c;
FETCH BACKWARD 1 FROM c;
COMMIT;
SET ROLE ds_other;
CREATE TABLE ds_mine (a int) USING weir_portal;
INSERT INTO ds_mine VALUES (1);
TABLE ds_mine;
DROP TABLE ds_mine;
RESET ROLE;

-- a restore by hand, of which the test damages one thing after the other
CREATE TABLE ds_dump AS SELECT * FROM weir.view_dump;
GRANT SELECT ON ds_dump TO PUBLIC;
CREATE FUNCTION ds_again() RETURNS void LANGUAGE plpgsql AS $$
BEGIN
  EXECUTE 'REFRESH MATERIALIZED VIEW ds_w WITH NO DATA';
  EXECUTE 'REFRESH MATERIALIZED VIEW ds_n WITH NO DATA';
END $$;
-- views that run
INSERT INTO weir.view_dump TABLE ds_dump;
-- a view that is not there
INSERT INTO weir.view_dump SELECT 'public.nowhere', part, data FROM ds_dump WHERE view = 'public.ds_w';
INSERT INTO weir.view_dump VALUES ('a.b.c.d', 'view', '{}');
INSERT INTO weir.view_dump VALUES ('"', 'view', '{}');
INSERT INTO weir.view_dump VALUES ('ds', 'view', '{}');
SELECT ds_again();
-- somebody else's view
SET ROLE ds_other;
INSERT INTO weir.view_dump TABLE ds_dump;
RESET ROLE;
-- right
INSERT INTO weir.view_dump TABLE ds_dump;
-- twice
INSERT INTO weir.view_dump TABLE ds_dump;
REFRESH MATERIALIZED VIEW ds_w;
REFRESH MATERIALIZED VIEW ds_n;
SELECT weir.wait_for();
SELECT * FROM ds_w ORDER BY 1, 2;
SELECT * FROM ds_n ORDER BY 1;
SELECT view, state, events_in, final_rows, watermark FROM weir.views WHERE view::text LIKE 'ds%' ORDER BY view::text;
-- and it goes on: late, not late
INSERT INTO ds VALUES (0, 10, '2026-01-01 00:01:30Z'), (0, 10, '2026-01-01 00:02:30Z');
SELECT weir.wait_for();
SELECT * FROM ds_w ORDER BY 1, 2;
SELECT * FROM ds_n ORDER BY 1;
SELECT view, late FROM weir.views WHERE view::text LIKE 'ds%' ORDER BY view::text;

-- the stream has got more events than there were
SELECT ds_again();
INSERT INTO weir.view_dump TABLE ds_dump;
REFRESH MATERIALIZED VIEW ds_w;
SELECT * FROM ds_w;
-- fewer: then it cannot be rebuilt
TRUNCATE ds;
REFRESH MATERIALIZED VIEW ds_w;
SELECT weir.wait_for('ds_w');
SELECT * FROM ds_w ORDER BY 1, 2;
REFRESH MATERIALIZED VIEW ds_w;
SELECT ds_again();

-- in one transaction with the stream's events, and what rolls back leaves nothing
BEGIN;
INSERT INTO ds SELECT i % 2, i, timestamptz '2026-01-01 00:00Z' + i * interval '20 s' FROM generate_series(1, 6) i;
INSERT INTO weir.view_dump TABLE ds_dump;
SAVEPOINT a;
REFRESH MATERIALIZED VIEW ds_w;
ROLLBACK TO a;
REFRESH MATERIALIZED VIEW ds_w;
REFRESH MATERIALIZED VIEW ds_n;
COMMIT;
SELECT weir.wait_for();
SELECT * FROM ds_w ORDER BY 1, 2;
SELECT * FROM ds_n ORDER BY 1;
INSERT INTO ds VALUES (1, 1, '2026-01-01 00:02:30Z');
SELECT weir.wait_for();
SELECT * FROM ds_n ORDER BY 1;
SELECT ds_again();
BEGIN;
INSERT INTO weir.view_dump SELECT view, part, CASE WHEN part = 'view' THEN data[:12] || '{100}' || data[14:] ELSE data END FROM ds_dump;
REFRESH MATERIALIZED VIEW ds_w;
PREPARE TRANSACTION 'ds';
SELECT count(*) FROM weir.view_import;

-- damage: each leaves the view as it was
CREATE FUNCTION ds_try(v text, change text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
  state text;
  message text;
  detail text;
BEGIN
  EXECUTE 'INSERT INTO weir.view_dump SELECT view, part, data FROM (SELECT view, part, ' || change
    || ' AS data FROM ds_dump) d WHERE view = $1 AND data IS NOT NULL' USING 'public.' || v;
  EXECUTE 'REFRESH MATERIALIZED VIEW ' || v;
  RAISE EXCEPTION 'taken';
EXCEPTION WHEN OTHERS THEN
  GET STACKED DIAGNOSTICS state = RETURNED_SQLSTATE, message = MESSAGE_TEXT, detail = PG_EXCEPTION_DETAIL;
  RETURN state || ' ' || message || coalesce(': ' || detail, '');
END $$;
TRUNCATE ds;
CREATE TABLE ds_change (id int GENERATED ALWAYS AS IDENTITY, change text);
INSERT INTO ds_change (change) VALUES
  ('data'),
  ($$CASE WHEN part <> 'end' THEN data END$$),
  ($$CASE WHEN part <> 'view' THEN data END$$),
  ($$CASE WHEN part <> 'group' THEN data END$$),
  ($$CASE WHEN part <> 'final' OR data[2] <> '0' THEN data END$$),
  ($$CASE part WHEN 'view' THEN '{2}' || data[2:] ELSE data END$$),
  ($$CASE part WHEN 'view' THEN data[:2] || '{v1}' || data[4:] ELSE data END$$),
  ($$CASE part WHEN 'view' THEN data[:3] || '{s}' || data[5:] ELSE data END$$),
  ($$CASE part WHEN 'view' THEN data[:4] || '{soon}' || data[6:] ELSE data END$$),
  ($$CASE part WHEN 'view' THEN data[:7] || '{-1}' || data[9:] ELSE data END$$),
  ($$CASE part WHEN 'view' THEN data[:15] || '{XX}' || data[17:] ELSE data END$$),
  ($$CASE part WHEN 'view' THEN data[:10] ELSE data END$$),
  ($$CASE part WHEN 'view' THEN data || '{1}' ELSE data END$$),
  ($$CASE part WHEN 'view' THEN array_fill(NULL::text, '{17}') ELSE data END$$),
  ($$CASE part WHEN 'view' THEN '{}' ELSE data END$$),
  ($$CASE part WHEN 'view' THEN '{{1,2},{3,4}}' ELSE data END$$),
  ($$CASE part WHEN 'view' THEN data[:2] || '{NULL}' || data[4:15] || '{22012,division}' ELSE data END$$),
  ($$CASE part WHEN 'group' THEN '{-9223372036854775808}' || data[2:] ELSE data END$$),
  ($$CASE part WHEN 'group' THEN '{9223372036854775806}' || data[2:] ELSE data END$$),
  ($$CASE part WHEN 'group' THEN data[:1] || '{yesterday at tea time}' || data[3:] ELSE data END$$),
  ($$CASE part WHEN 'group' THEN data[:3] || '{7}' || data[5:] ELSE data END$$),
  ($$CASE part WHEN 'group' THEN data[:3] || '{1}' || data[5:] ELSE data END$$),
  ($$CASE part WHEN 'group' THEN data[:4] || '{NULL}' || data[6:] ELSE data END$$),
  ($$CASE part WHEN 'group' THEN data[:4] ELSE data END$$),
  ($$CASE part WHEN 'group' THEN data || '{0}' ELSE data END$$),
  ($$CASE part WHEN 'final' THEN data[:2] ELSE data END$$),
  ($$CASE part WHEN 'final' THEN data[:2] || '{many}' ELSE data END$$);
SELECT id, ds_try('ds_w', change) FROM ds_change ORDER BY id;
-- a state that only its aggregate's functions can read
SELECT ds_try('ds_n', 'data');
SELECT ds_try('ds_n', $$CASE part WHEN 'view' THEN data[:1] || '{14}' || data[3:] ELSE data END$$);
SELECT ds_try('ds_n', $$CASE part WHEN 'view' THEN data[:1] || ARRAY['14', replace(data[3], 'serial', 'serial of PostgreSQL 14')] || data[4:] ELSE data END$$);
SELECT ds_try('ds_n', $$CASE part WHEN 'group' THEN data[:3] || '{00}' ELSE data END$$);
SELECT ds_try('ds_n', $$CASE part WHEN 'group' THEN data[:3] || '{0g}' ELSE data END$$);
SET ROLE ds_owner;
SELECT ds_try('ds_n', 'data');
SELECT ds_try('ds_w', 'data');
RESET ROLE;
SELECT count(*) FROM weir.view_import;
SELECT view, state FROM weir.views WHERE view::text LIKE 'ds%' ORDER BY view::text;

-- a view that cannot be read is dumped without its state, and says so
SET ROLE ds_owner;
CREATE FUNCTION ds_double(int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT 2 * $1';
CREATE MATERIALIZED VIEW ds_f USING continuous AS SELECT k, sum(ds_double(k)) AS s FROM ds GROUP BY k;
SELECT weir.wait_for('ds_f');
RESET ROLE;
ALTER FUNCTION ds_double(int) OWNER TO ds_other;
REVOKE ALL ON FUNCTION ds_double(int) FROM PUBLIC;
SELECT part, data[16:] FROM weir.view_dump WHERE view = 'public.ds_f';

DROP FUNCTION ds_again(), ds_try(text, text);
DROP TABLE ds_dump, ds_change;
DROP TABLE ds CASCADE;
DROP FUNCTION ds_double(int);
DROP OWNED BY ds_owner, ds_other;
DROP ROLE ds_owner, ds_other;
