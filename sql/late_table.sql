-- Option late_table: the events that entered no window, one row each, written
-- with the checkpoint.
SET timezone = 'UTC';
SET datestyle = 'ISO';
SET client_min_messages = warning;
CREATE SCHEMA late_rows;
SET search_path = late_rows, public;
CREATE TABLE lt (x int, id int, k int, note text, dropped int, "Odd name" numeric(8, 2), tags text[], ts timestamptz NOT NULL,
    doubled int GENERATED ALWAYS AS (k * 2) STORED)
  USING stream WITH (event_time = ts, watermark_delay = '10 seconds');
ALTER TABLE lt DROP COLUMN dropped;
CREATE MATERIALIZED VIEW l USING continuous WITH (late_table = late) AS
  SELECT window_start, k, count(*) AS n FROM lt, tumble(ts, '1 minute') WHERE k <> 9 GROUP BY 1, 2;
\d late
SELECT pg_get_userbyid(relowner) = current_user AS mine, relkind, reltoastrelid > 0 AS toast, am.amname FROM pg_class c JOIN pg_am am ON am.oid = relam WHERE c.oid = 'late'::regclass;
SELECT option_value FROM pg_options_to_table((SELECT reloptions FROM pg_class WHERE oid = 'l'::regclass)) WHERE option_name = 'late_table';

CREATE FUNCTION put(x int, VARIADIC seconds numeric[]) RETURNS void LANGUAGE sql AS $$
  INSERT INTO lt SELECT x, x * 100 + o, o % 4, nullif('n' || o % 3, 'n0'), o * 1.5, ARRAY['a', NULL, o::text],
    timestamptz '2020-01-01' + s * interval '1 s' FROM unnest(seconds) WITH ORDINALITY u(s, o) $$;
-- the model: W before a transaction is the highest event time before it less the delay
CREATE VIEW judged AS
  SELECT l.*, date_trunc('minute', ts) + interval '1 minute' AS we, coalesce(w.w, '-infinity') AS w
  FROM lt l JOIN (SELECT x, max(m) OVER (ORDER BY x ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) - interval '10 seconds' AS w
    FROM (SELECT x, max(ts) AS m FROM lt GROUP BY x) m) w USING (x);
CREATE FUNCTION model(v regclass, lateness interval DEFAULT '0') RETURNS TABLE (x int, id int, k int, note text, "Odd name" numeric, tags text[], ts timestamptz, doubled int,
    late_view regclass, window_end timestamptz, watermark timestamptz) LANGUAGE sql AS $$
  SELECT x, id, k, note, "Odd name", tags, ts, doubled, v, we, w FROM judged WHERE we + lateness <= w AND k <> 9 $$;
CREATE FUNCTION verdict(v text DEFAULT 'l', t text DEFAULT 'late', lateness interval DEFAULT '0') RETURNS TABLE (rows bigint, differ bigint, counted boolean) LANGUAGE plpgsql AS $$
  BEGIN
    RETURN QUERY EXECUTE format('WITH a AS (SELECT x, id, k, note, "Odd name", tags, ts, doubled, late_view, window_end, watermark FROM %1$s WHERE late_view = %2$L::regclass),
      b AS (SELECT * FROM model(%2$L, %3$L))
      SELECT (SELECT count(*) FROM a), (SELECT count(*) FROM ((TABLE a EXCEPT ALL TABLE b) UNION ALL (TABLE b EXCEPT ALL TABLE a)) d),
        (SELECT count(*) FROM a) = (SELECT late FROM weir.views WHERE view = %2$L::regclass)', t, v, lateness);
  END $$;

-- nothing is late
SELECT put(1, 5, 20, 59.999999, 60, 3);
SELECT weir.wait_for(), weir.checkpoint();
SELECT * FROM verdict();
-- rows of one transaction are never late because of each other
SELECT put(2, 5, 400, 10, 20);
SELECT weir.wait_for(), weir.checkpoint();
SELECT * FROM verdict();
-- late: of several windows, with nulls; not after WHERE (k = 9); at the edge
SELECT put(3, 5, 359.999999, 389.999999, 390, 330, 60, 60);
INSERT INTO lt (x, id, k, ts) VALUES (3, 399, 9, '2020-01-01'), (3, 398, NULL, '2020-01-01'), (3, 397, 1, '2020-01-01');
SELECT weir.wait_for(), weir.checkpoint();
SELECT * FROM verdict();
SELECT id, k, note, "Odd name", tags, ts, doubled, late_view, window_end, watermark, arrived_at BETWEEN now() - interval '1 hour' AND clock_timestamp() AS arrived FROM late ORDER BY id;
-- several chunks and slices, long values
INSERT INTO lt SELECT 4, 4000 + i, i % 10, repeat('x', i % 7 * 1000), i, NULL, timestamptz '2020-01-01' + i * interval '1 s' FROM generate_series(1, 5000) i;
INSERT INTO lt SELECT 5, 10000 + i, i % 10, repeat('x', i % 3000), i, NULL, timestamptz '2020-01-01' + i * interval '1 s' FROM generate_series(1, 5000) i;
SELECT weir.wait_for(), weir.checkpoint();
SELECT * FROM verdict();

-- REFRESH replaces the view's rows in the swap; other rows are the user's
INSERT INTO late (id, late_view) VALUES (-1, 'pg_class');
UPDATE late SET note = 'touched' WHERE id % 2 = 0;
DELETE FROM late WHERE id % 3 = 0;
REFRESH MATERIALIZED VIEW l;
SELECT weir.wait_for(), weir.checkpoint();
SELECT * FROM verdict();
SELECT id, late_view FROM late WHERE late_view <> 'l'::regclass;
ALTER MATERIALIZED VIEW l SET (allowed_lateness = '30 minutes');
REFRESH MATERIALIZED VIEW l;
SELECT weir.wait_for(), weir.checkpoint();
SELECT * FROM verdict(lateness => '30 minutes');
ALTER MATERIALIZED VIEW l RESET (allowed_lateness);
REFRESH MATERIALIZED VIEW l;
SELECT weir.wait_for(), weir.checkpoint();
SELECT * FROM verdict();

-- a stopped view's rows stay until it starts again
REFRESH MATERIALIZED VIEW l WITH NO DATA;
SELECT count(*) > 0 AS stay FROM late WHERE late_view = 'l'::regclass;
REFRESH MATERIALIZED VIEW l;
SELECT weir.wait_for(), weir.checkpoint();
SELECT * FROM verdict();

-- what a worker that died had not written its successor reads again
SELECT put(6, 1, 2, 3);
SELECT weir.wait_for();
SELECT count(pg_terminate_backend(pid, 10000)) > 0 AS ended FROM weir.workers;
SELECT weir.wait_for(), weir.checkpoint();
SELECT * FROM verdict();

-- it is an ordinary table: indexes, further columns, defaults, constraints
CREATE INDEX ON late (late_view, window_end);
ALTER TABLE late ADD COLUMN n bigint GENERATED BY DEFAULT AS IDENTITY, ADD COLUMN noted timestamptz DEFAULT now(), ADD CHECK (x < 1000);
SELECT put(7, 1, 2, 3);
SELECT weir.wait_for(), weir.checkpoint();
SELECT * FROM verdict();
SELECT count(n), count(noted) FROM late WHERE x = 7;

-- the names follow
ALTER TABLE late RENAME TO "Late rows";
ALTER TABLE lt RENAME COLUMN note TO remark;
ALTER TABLE "Late rows" RENAME COLUMN remark TO note;
ALTER TABLE lt RENAME COLUMN remark TO note;
SELECT put(8, 1, 2, 3);
SELECT weir.wait_for(), weir.checkpoint();
SELECT * FROM verdict(t => '"Late rows"');
CREATE SCHEMA ls;
ALTER TABLE "Late rows" SET SCHEMA ls;
SELECT option_value FROM pg_options_to_table((SELECT reloptions FROM pg_class WHERE oid = 'l'::regclass)) WHERE option_name = 'late_table';
ALTER SCHEMA ls RENAME TO ls2;
SELECT option_value FROM pg_options_to_table((SELECT reloptions FROM pg_class WHERE oid = 'l'::regclass)) WHERE option_name = 'late_table';
ALTER MATERIALIZED VIEW l SET SCHEMA ls2;
SELECT option_value FROM pg_options_to_table((SELECT reloptions FROM pg_class WHERE oid = 'ls2.l'::regclass)) WHERE option_name = 'late_table';
ALTER MATERIALIZED VIEW ls2.l SET SCHEMA late_rows;
ALTER TABLE ls2."Late rows" SET SCHEMA late_rows;
ALTER TABLE "Late rows" RENAME TO late;
SELECT option_value FROM pg_options_to_table((SELECT reloptions FROM pg_class WHERE oid = 'l'::regclass)) WHERE option_name = 'late_table';
SELECT put(9, 1, 2, 3);
SELECT weir.wait_for(), weir.checkpoint();
SELECT * FROM verdict();

-- columns that the stream gets later, or that the late table lacks, are left out
ALTER TABLE lt ADD COLUMN extra int DEFAULT 7;
SELECT put(10, 1);
SELECT weir.wait_for(), weir.checkpoint();
ALTER TABLE late ADD COLUMN extra int;
SELECT put(11, 2);
SELECT weir.wait_for(), weir.checkpoint();
SELECT x, extra FROM late WHERE x >= 10 ORDER BY x;
ALTER TABLE late DROP COLUMN extra;
ALTER TABLE lt DROP COLUMN extra;
SELECT put(12, 1);
SELECT weir.wait_for(), weir.checkpoint();
SELECT * FROM verdict();

-- the view depends on the table
DROP TABLE late;
ALTER MATERIALIZED VIEW l RESET (late_table);
SELECT put(13, 1);
SELECT weir.wait_for(), weir.checkpoint();
SELECT max(x), (SELECT late FROM weir.views WHERE view = 'l'::regclass) = 1 + (SELECT count(*) FROM late WHERE late_view = 'l'::regclass) AS one_more FROM late;
-- set again: from then on; REFRESH brings the others
ALTER MATERIALIZED VIEW l SET (late_table = 'late');
SELECT put(14, 1);
SELECT weir.wait_for(), weir.checkpoint();
SELECT count(*) FROM late WHERE x IN (13, 14);
REFRESH MATERIALIZED VIEW l;
SELECT weir.wait_for(), weir.checkpoint();
SELECT * FROM verdict();
-- another table; the old one keeps its rows
ALTER MATERIALIZED VIEW l SET (late_table = 'late2');
SELECT put(15, 1);
SELECT weir.wait_for(), weir.checkpoint();
SELECT (SELECT max(x) FROM late) AS late, (SELECT array_agg(x) FROM late2) AS late2;
DROP TABLE late;
REFRESH MATERIALIZED VIEW l;
SELECT weir.wait_for(), weir.checkpoint();
SELECT * FROM verdict(t => 'late2');
ALTER MATERIALIZED VIEW l SET (late_table = 'late2', emit = live);

-- several views share a table; dropping one leaves its rows
CREATE MATERIALIZED VIEW l2 USING continuous WITH (late_table = late2, allowed_lateness = '1 minute') AS
  SELECT window_start, k, count(*) AS n FROM lt, tumble(ts, '1 minute') WHERE k <> 9 GROUP BY 1, 2;
SELECT weir.wait_for(), weir.checkpoint();
SELECT * FROM verdict(t => 'late2');
SELECT * FROM verdict('l2', 'late2', '1 minute');
REFRESH MATERIALIZED VIEW l;
SELECT weir.wait_for(), weir.checkpoint();
SELECT * FROM verdict(t => 'late2');
SELECT * FROM verdict('l2', 'late2', '1 minute');
SELECT count(*) AS n FROM late2 \gset
DROP MATERIALIZED VIEW l2;
SELECT count(*) = :n AS stay FROM late2;

-- a table that does not fit any more stops the view, which goes on where it was
SET client_min_messages = notice;
CREATE FUNCTION nothing() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
-- the error that the next checkpoints meet
CREATE FUNCTION fails(v regclass DEFAULT 'l') RETURNS text LANGUAGE plpgsql AS $$
  DECLARE r record;
  BEGIN
    FOR i IN 1 .. 1000 LOOP
      PERFORM weir.checkpoint();
      SELECT state, error INTO r FROM weir.views WHERE view = v;
      IF r.state = 'failed' THEN RETURN r.error; END IF;
      PERFORM pg_sleep(0.01);
    END LOOP;
    RETURN r.state;
  END $$;

CREATE TRIGGER t BEFORE INSERT ON late2 FOR EACH ROW EXECUTE FUNCTION nothing();
SELECT put(16, 1, 2);
SELECT fails();
DROP TRIGGER t ON late2;
SELECT weir.resume('l');
SELECT weir.wait_for(), weir.checkpoint();
SELECT * FROM verdict(t => 'late2');

ALTER TABLE late2 ENABLE ROW LEVEL SECURITY;
SELECT put(17, 1, 2);
SELECT fails();
ALTER TABLE late2 DISABLE ROW LEVEL SECURITY;
CREATE RULE r AS ON INSERT TO late2 DO ALSO NOTHING;
SELECT weir.resume('l');
SELECT fails();
DROP RULE r ON late2;
ALTER TABLE late2 ALTER COLUMN k TYPE bigint;
SELECT weir.resume('l');
SELECT fails();
ALTER TABLE late2 ALTER COLUMN k TYPE int;
ALTER TABLE late2 DROP COLUMN watermark;
SELECT weir.resume('l');
SELECT fails();
ALTER TABLE late2 ADD COLUMN watermark timestamptz;
ALTER TABLE late2 ADD CONSTRAINT few CHECK (id <> 1702);
SELECT weir.resume('l');
SELECT fails();
ALTER TABLE late2 DROP CONSTRAINT few;
SELECT weir.resume('l');
SELECT weir.wait_for(), weir.checkpoint();
SELECT state, error FROM weir.views WHERE view = 'l'::regclass;
REFRESH MATERIALIZED VIEW l;
SELECT weir.wait_for(), weir.checkpoint();
SELECT * FROM verdict(t => 'late2');

-- windows that overlap: what missed the last of its windows is late, and that end is shown; what missed some is not
CREATE MATERIALIZED VIEW lh USING continuous WITH (late_table = late_w) AS
  SELECT window_start, k, count(*) AS n FROM lt, hop(ts, '20 seconds', '1 minute') WHERE k <> 9 GROUP BY 1, 2;
CREATE MATERIALIZED VIEW lc USING continuous WITH (late_table = late_w) AS
  SELECT window_end, count(*) AS n FROM lt, cumulate(ts, '20 seconds', '2 minutes') WHERE k <> 9 GROUP BY 1;
SELECT weir.wait_for(), weir.checkpoint();
SELECT late_view, count(*) > 0 AS some, count(*) = (SELECT late FROM weir.views v WHERE v.view = late_view) AS counted, bool_and(watermark >= window_end) FROM late_w GROUP BY 1 ORDER BY 1;
CREATE VIEW overlapping AS
  SELECT 'lh'::regclass AS v, x, id, w, (SELECT max(window_end) FROM hop(ts, '20 seconds', '1 minute')) AS last FROM judged WHERE k <> 9
  UNION ALL SELECT 'lc', x, id, w, (SELECT max(window_end) FROM cumulate(ts, '20 seconds', '2 minutes')) FROM judged WHERE k <> 9;
SELECT count(*) FROM (SELECT late_view, x, id, watermark, window_end FROM late_w EXCEPT ALL SELECT * FROM overlapping WHERE last <= w) d;
SELECT count(*) FROM (SELECT * FROM overlapping WHERE last <= w EXCEPT ALL SELECT late_view, x, id, watermark, window_end FROM late_w) d;
SELECT late_partial > 0 AS partial FROM weir.views WHERE view IN ('lh'::regclass, 'lc') ORDER BY view;
REFRESH MATERIALIZED VIEW lh;
SELECT weir.wait_for(), weir.checkpoint();
SELECT count(*) FROM (SELECT late_view, x, id, watermark, window_end FROM late_w EXCEPT ALL SELECT * FROM overlapping WHERE last <= w) d;
SELECT count(*) FROM (SELECT * FROM overlapping WHERE last <= w EXCEPT ALL SELECT late_view, x, id, watermark, window_end FROM late_w) d;
-- sessions: whether a row is late depends on its key
CREATE TABLE se (k int, id int, ts timestamptz) USING stream WITH (event_time = ts, watermark_delay = '0 s');
CREATE MATERIALIZED VIEW ls USING continuous WITH (late_table = late_s) AS
  SELECT k, window_start, window_end, count(*) AS n FROM se, session(ts, '30 seconds') GROUP BY 1, 2, 3;
INSERT INTO se VALUES (1, 1, '2020-01-01 00:00'), (1, 2, '2020-01-01 00:09:00'), (1, 3, '2020-01-01 00:10:00');
INSERT INTO se VALUES (1, 4, '2020-01-01 00:00:10'), (1, 5, '2020-01-01 00:05:00'), (1, 6, '2020-01-01 00:09:40'), (2, 7, '2020-01-01 00:09:00'), (2, 8, '2020-01-01 00:09:30');
SELECT weir.wait_for(), weir.checkpoint();
SELECT id, k, ts, window_end, watermark FROM late_s ORDER BY id;
SELECT late FROM weir.views WHERE view = 'ls'::regclass;
SELECT * FROM ls ORDER BY 1, 2;
-- many in one batch: each is looked up where it stands
INSERT INTO se SELECT i % 3, i, timestamptz '2020-01-01' + i % 500 * interval '1 s' FROM generate_series(1000, 4000) i;
SELECT weir.wait_for(), weir.checkpoint();
SELECT count(*) = (SELECT late FROM weir.views WHERE view = 'ls'::regclass) AS counted, count(DISTINCT id) = count(*) AS once,
  bool_and(id < 1000 OR (k = id % 3 AND ts = timestamptz '2020-01-01' + id % 500 * interval '1 s')) AS same, bool_and(window_end < watermark AND ts < window_end) AS ends FROM late_s;

-- refused
CREATE MATERIALIZED VIEW x USING continuous WITH (late_table = late_n) AS
  SELECT k, window_start, count(*) FROM lt, count_window(5) GROUP BY 1, 2;
CREATE TABLE taken (late_view regclass, window_end timestamptz, watermark timestamptz);
CREATE MATERIALIZED VIEW x USING continuous WITH (late_table = taken) AS
  SELECT window_start, count(*) FROM lt, tumble(ts, '1 minute') GROUP BY 1;
ALTER TABLE taken ADD COLUMN arrived_at timestamptz, ADD COLUMN k text;
CREATE MATERIALIZED VIEW x USING continuous WITH (late_table = taken) AS
  SELECT window_start, count(*) FROM lt, tumble(ts, '1 minute') GROUP BY 1;
ALTER TABLE taken DROP COLUMN k;
CREATE MATERIALIZED VIEW x USING continuous WITH (late_table = lt) AS
  SELECT window_start, count(*) FROM lt, tumble(ts, '1 minute') GROUP BY 1;
CREATE MATERIALIZED VIEW x USING continuous WITH (late_table = x) AS
  SELECT window_start, count(*) FROM lt, tumble(ts, '1 minute') GROUP BY 1;
CREATE MATERIALIZED VIEW x USING continuous WITH (late_table = judged) AS
  SELECT window_start, count(*) FROM lt, tumble(ts, '1 minute') GROUP BY 1;
CREATE MATERIALIZED VIEW x USING continuous WITH (late_table = 'a b') AS
  SELECT window_start, count(*) FROM lt, tumble(ts, '1 minute') GROUP BY 1;
CREATE MATERIALIZED VIEW x USING continuous WITH (late_table = 'a.b.c') AS
  SELECT window_start, count(*) FROM lt, tumble(ts, '1 minute') GROUP BY 1;
CREATE MATERIALIZED VIEW x USING continuous WITH (late_table = '') AS
  SELECT window_start, count(*) FROM lt, tumble(ts, '1 minute') GROUP BY 1;
CREATE MATERIALIZED VIEW x USING continuous WITH (late_table = 'nowhere.late') AS
  SELECT window_start, count(*) FROM lt, tumble(ts, '1 minute') GROUP BY 1;
CREATE MATERIALIZED VIEW x USING continuous WITH (late_table = 'late3') AS SELECT k, count(*) FROM lt GROUP BY 1;
ALTER MATERIALIZED VIEW l SET (late_table = 'judged');
SELECT option_value FROM pg_options_to_table((SELECT reloptions FROM pg_class WHERE oid = 'l'::regclass)) WHERE option_name = 'late_table';
CREATE TABLE clash (watermark int, ts timestamptz) USING stream WITH (event_time = ts);
CREATE MATERIALIZED VIEW x USING continuous WITH (late_table = 'late3') AS
  SELECT window_start, count(*) FROM clash, tumble(ts, '1 minute') GROUP BY 1;
-- a narrow one of the user's is taken
CREATE MATERIALIZED VIEW x USING continuous WITH (late_table = taken) AS
  SELECT window_start, count(*) FROM clash, tumble(ts, '1 minute') GROUP BY 1;
INSERT INTO clash VALUES (1, '2020-01-01 00:10+00');
INSERT INTO clash VALUES (2, '2020-01-01 00:00+00');
SELECT weir.wait_for('x'), weir.checkpoint();
SELECT late_view, window_end, watermark FROM taken;
DROP TABLE clash CASCADE;
SELECT late_view::text ~ '^\d+$' AS gone FROM taken;
SELECT to_regclass('late3');

-- timestamp
CREATE TABLE plain (k int, ts timestamp) USING stream WITH (event_time = ts, watermark_delay = '0 s');
CREATE MATERIALIZED VIEW p USING continuous WITH (late_table = late_p) AS
  SELECT window_end, count(*) FROM plain, tumble(ts, '1 minute') GROUP BY 1;
INSERT INTO plain VALUES (1, '2020-01-01 00:10');
INSERT INTO plain VALUES (2, '2020-01-01 00:08:59.5'), (3, '2020-01-01 00:09:59.5');
SELECT weir.wait_for('p'), weir.checkpoint();
SELECT *, pg_typeof(window_end) FROM (SELECT k, ts, late_view, window_end, watermark FROM late_p) s ORDER BY k;
CREATE MATERIALIZED VIEW x USING continuous WITH (late_table = late2) AS
  SELECT window_end, count(*) FROM plain, tumble(ts, '1 minute') GROUP BY 1;

-- rights: the owner's; a column he may not read is not shown to him
CREATE ROLE weir_late_a;
CREATE ROLE weir_late_b;
GRANT USAGE ON SCHEMA late_rows TO weir_late_a, weir_late_b;
GRANT CREATE ON SCHEMA late_rows TO weir_late_b;
GRANT SELECT (k, ts), TRIGGER ON lt TO weir_late_a;
GRANT SELECT, TRIGGER ON lt TO weir_late_b;
CREATE SCHEMA sa AUTHORIZATION weir_late_a;
GRANT USAGE, CREATE ON SCHEMA sa TO weir_late_b;
SET ROLE weir_late_a;
CREATE MATERIALIZED VIEW sa.v USING continuous WITH (late_table = late_a) AS
  SELECT window_start, count(*) FROM lt, tumble(ts, '1 minute') GROUP BY 1;
CREATE MATERIALIZED VIEW sa.v USING continuous WITH (late_table = 'late_rows.late_a') AS
  SELECT window_start, count(*) FROM lt, tumble(ts, '1 minute') GROUP BY 1;
CREATE MATERIALIZED VIEW sa.v USING continuous WITH (late_table = 'late_rows.late2') AS
  SELECT window_start, count(*) FROM lt, tumble(ts, '1 minute') GROUP BY 1;
CREATE TABLE sa.late_a (late_view regclass, window_end timestamptz, watermark timestamptz, arrived_at timestamptz, k int);
CREATE MATERIALIZED VIEW sa.v USING continuous WITH (late_table = late_a) AS
  SELECT window_start, count(*) FROM lt, tumble(ts, '1 minute') GROUP BY 1;
RESET ROLE;
SELECT weir.wait_for('sa.v'), weir.checkpoint();
SELECT count(*) > 0 AS some, count(*) = (SELECT late FROM weir.views WHERE view = 'sa.v'::regclass) AS all FROM sa.late_a;
-- OWNER TO takes the late table along
ALTER MATERIALIZED VIEW sa.v OWNER TO weir_late_b;
SELECT relname, relowner::regrole FROM pg_class WHERE relname IN ('late_a', 'v') AND relnamespace = 'sa'::regnamespace ORDER BY 1;
SELECT put(18, 1, 2);
SELECT weir.wait_for('sa.v'), weir.checkpoint();
SELECT count(*) > 0 AS some, count(*) = (SELECT late FROM weir.views WHERE view = 'sa.v'::regclass) AS all FROM sa.late_a;
-- not one that was not the old owner's, or is used by others: then the new one needs the rights
ALTER TABLE sa.late_a OWNER TO weir_late_a;
SELECT put(19, 1, 2);
SELECT fails('sa.v');
GRANT SELECT, INSERT, DELETE ON sa.late_a TO weir_late_b;
SELECT weir.resume('sa.v');
SELECT weir.wait_for('sa.v'), weir.checkpoint();
SELECT count(*) > 0 AS some, count(*) = (SELECT late FROM weir.views WHERE view = 'sa.v'::regclass) AS all FROM sa.late_a;
CREATE ROLE weir_late_c;
GRANT SELECT, TRIGGER ON lt TO weir_late_c;
GRANT USAGE, CREATE ON SCHEMA sa TO weir_late_c;
GRANT USAGE ON SCHEMA late_rows TO weir_late_c;
ALTER MATERIALIZED VIEW sa.v OWNER TO weir_late_c;
GRANT SELECT, INSERT, DELETE ON sa.late_a TO weir_late_c;
ALTER MATERIALIZED VIEW sa.v OWNER TO weir_late_c;
-- a column of a late table that is another's keeps its name
GRANT CREATE ON SCHEMA late_rows TO weir_late_a;
ALTER TABLE lt OWNER TO weir_late_a;
SET ROLE weir_late_a;
ALTER TABLE lt RENAME COLUMN "Odd name" TO even;
ALTER TABLE lt RENAME COLUMN k TO key;
RESET ROLE;
SELECT attname FROM pg_attribute WHERE attrelid = 'sa.late_a'::regclass AND attnum > 0;
SELECT attname FROM pg_attribute WHERE attrelid = 'late2'::regclass AND attname IN ('k', 'key', 'even', 'Odd name') ORDER BY 1;
SET client_min_messages = warning;
DROP SCHEMA sa CASCADE;
RESET search_path;
DROP SCHEMA late_rows, ls2 CASCADE;
DROP OWNED BY weir_late_a, weir_late_b, weir_late_c;
DROP ROLE weir_late_a, weir_late_b, weir_late_c;
SELECT count(*) FROM weir.late_pending;
