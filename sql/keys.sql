-- Equality of GROUP BY keys is the type's, never that of bytes: across
-- transactions, workers and checkpoints the groups, and the value that stands
-- for each, are those of the query run over the stream.
SET timezone = 'UTC';
SET client_min_messages = warning;
CREATE SCHEMA keys;
SET search_path = keys, public;
CREATE COLLATION ci (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
-- without contrib a domain does as well
DO $$
BEGIN
  IF EXISTS (SELECT FROM pg_available_extensions WHERE name = 'citext') THEN
    CREATE EXTENSION citext;
  ELSE
    CREATE DOMAIN citext AS text COLLATE ci;
  END IF;
END $$;
CREATE TYPE colour AS ENUM ('red', 'green');
CREATE TYPE pair AS (n numeric, t text);
CREATE DOMAIN positive AS numeric CHECK (value > 0);
CREATE TYPE textrange AS RANGE (subtype = text, collation = "C");

-- one column a type; each row of the list below is an event for one of them
CREATE TABLE kv (id int GENERATED ALWAYS AS IDENTITY,
  i2 smallint, i4 int, i8 bigint, num numeric, num2 numeric(10, 3), pos positive,
  f4 real, f8 double precision, m money, b boolean,
  t text, tci text COLLATE ci, vc varchar(20), cx citext, bp bpchar, bp4 char(4), nm name, ch "char",
  by bytea, bits varbit, u uuid, e colour,
  d date, tim time, ttz timetz, tsp timestamp, tstz timestamptz, iv interval,
  ip inet, ci cidr, mac macaddr, lsn pg_lsn, x8 xid8, o oid,
  ia int[], na numeric[], ta text[] COLLATE ci, fa float8[],
  j jsonb, r4 int4range, rn numrange, rt textrange, mr nummultirange,
  p pair, pa pair[], tv tsvector, ov oidvector)
  USING stream;

-- a view for each column
SELECT format('CREATE MATERIALIZED VIEW v_%s USING continuous AS
  SELECT %1$I AS k, count(*) AS n, sum(id) AS s, min(id) AS low FROM kv GROUP BY %1$I', attname)
FROM pg_attribute WHERE attrelid = 'kv'::regclass AND attnum > 1 ORDER BY attnum \gexec
-- keys of several types at once, expressions, and a key that is not shown
CREATE MATERIALIZED VIEW c_many USING continuous AS
  SELECT num, tci, bp4, iv, p, count(*) AS n, sum(id) AS s FROM kv GROUP BY iv, num, p, bp4, tci;
CREATE MATERIALIZED VIEW c_expr USING continuous AS
  SELECT num + 1 AS n1, lower(tci) AS l, (p).n AS pn, array_length(ia, 1) + 1 AS a1, count(*) AS n, sum(id) AS s
  FROM kv GROUP BY num + 1, lower(tci), p, array_length(ia, 1);
CREATE MATERIALIZED VIEW c_row USING continuous AS
  SELECT (ROW(num, bp4)::pair).n AS n1, count(*) AS n, sum(id) AS s FROM kv GROUP BY ROW(num, bp4)::pair;
CREATE MATERIALIZED VIEW c_whole USING continuous AS
  SELECT k, count(*) AS n FROM (SELECT ROW(f8, t)::pair AS k FROM kv) x GROUP BY k;
CREATE MATERIALIZED VIEW c_collate USING continuous AS
  SELECT t COLLATE ci AS k, count(*) AS n, sum(id) AS s FROM kv GROUP BY t COLLATE ci;
CREATE MATERIALIZED VIEW c_const USING continuous AS
  SELECT NULL::text AS k, 1 AS one, count(*) AS n FROM kv GROUP BY NULL::text, 2 + 0;

-- spellings of equal values, and of others
CREATE TABLE spellings (col text, val text, ord int GENERATED ALWAYS AS IDENTITY);
INSERT INTO spellings (col, val) VALUES
  ('i2', '1'), ('i2', '-1'), ('i4', '1'), ('i4', '-1'), ('i8', '1'), ('i8', '-1'), ('i8', '4294967297'),
  ('num', '1.0'), ('num', '1.00'), ('num', '1'), ('num', '1e0'), ('num', '10'), ('num', '0'), ('num', '0.000'),
  ('num', 'NaN'), ('num', 'nan'), ('num', 'Infinity'), ('num', '-inf'), ('num', '100000000000000000000.00'), ('num', '1e20'),
  ('num2', '1'), ('num2', '1.000'), ('num2', '2.5'), ('pos', '1.0'), ('pos', '1.00'),
  ('f4', '0'), ('f4', '-0'), ('f4', 'NaN'), ('f4', '-nan'), ('f4', 'inf'), ('f4', '1'),
  ('f8', '-0.0'), ('f8', '0.0'), ('f8', 'NaN'), ('f8', 'nan'), ('f8', '-inf'), ('f8', '1e-300'),
  ('m', '1'), ('m', '1.00'), ('b', 't'), ('b', 'false'), ('b', 'on'),
  ('t', 'abc'), ('t', 'ABC'), ('t', ''), ('t', 'abc '), ('t', repeat('long', 2000)), ('t', repeat('long', 2000) || 'x'),
  ('tci', 'abc'), ('tci', 'ABC'), ('tci', 'aBc'), ('tci', 'äbc'), ('tci', 'ÄBC'), ('tci', repeat('Long', 2000)), ('tci', repeat('lONG', 2000)),
  ('vc', 'x'), ('vc', 'X'), ('cx', 'Word'), ('cx', 'wORD'), ('cx', 'other'),
  ('bp', 'ab'), ('bp', 'ab  '), ('bp', 'ab    '), ('bp', 'AB'), ('bp', ''), ('bp', '   '),
  ('bp4', 'ab'), ('bp4', 'ab  '), ('bp4', 'b'), ('nm', 'n'), ('nm', 'N'), ('ch', 'a'), ('ch', 'b'),
  ('by', '\x00'), ('by', '\000'), ('by', '\x0001'), ('bits', '1'), ('bits', '10'), ('bits', '01'),
  ('u', '00000000-0000-0000-0000-00000000000a'), ('u', '{0000000000000000000000000000000A}'), ('e', 'red'), ('e', 'green'),
  ('d', '2026-01-01'), ('d', 'Jan 1 2026'), ('d', 'infinity'), ('tim', '24:00'), ('tim', '00:00'),
  ('ttz', '12:00+00'), ('ttz', '13:00+01'), ('ttz', '12:00+01'),
  ('tsp', '2026-01-01 00:00'), ('tsp', '-infinity'), ('tstz', '2026-01-01 00:00+00'), ('tstz', '2026-01-01 01:00+01'),
  ('iv', '1 month'), ('iv', '30 days'), ('iv', '720 hours'), ('iv', '1 day'), ('iv', '24:00:00'), ('iv', '0'), ('iv', '1 month -30 days'), ('iv', '-1 day'),
  ('ip', '10.0.0.1'), ('ip', '10.0.0.1/32'), ('ip', '10.0.0.1/24'), ('ci', '10.0.0.0/8'), ('ci', '10.0/8'),
  ('mac', '08:00:2b:01:02:03'), ('mac', '08002b-010203'), ('lsn', '0/1'), ('lsn', '00000000/00000001'), ('x8', '1'), ('o', '1'), ('o', '4294967295'),
  ('ia', '{1,2}'), ('ia', '{1, 2}'), ('ia', '[2:3]={1,2}'), ('ia', '{{1,2}}'), ('ia', '{}'), ('ia', '{1,NULL}'), ('ia', '{NULL}'), ('ia', '{1,NULL}'),
  ('na', '{1.0,2}'), ('na', '{1.00,2.0}'), ('na', '{1}'), ('ta', '{a,B}'), ('ta', '{A,b}'), ('ta', '{a}'), ('fa', '{0,-0}'), ('fa', '{-0,0}'), ('fa', '{NaN}'),
  ('j', '{"a":1,"b":[1.0]}'), ('j', '{"b":[1.00],"a":1.0}'), ('j', '1'), ('j', '1.0'), ('j', '"1"'), ('j', 'null'), ('j', '[]'), ('j', '{}'),
  ('r4', '[1,3)'), ('r4', '[1,2]'), ('r4', 'empty'), ('r4', '[5,5)'), ('rn', '[1.0,2)'), ('rn', '[1.00,2.0)'), ('rn', '(,)'),
  ('rt', '[a,b)'), ('rt', '[A,b)'), ('mr', '{[1,2),[2,3)}'), ('mr', '{[1.0,3.00)}'), ('mr', '{}'),
  ('p', '(1.0,x)'), ('p', '(1.00,x)'), ('p', '(1,X)'), ('p', '(,)'), ('p', '(NaN,)'), ('p', '(nan,)'),
  ('pa', '{"(1.0,x)","(2,)"}'), ('pa', '{"(1.00,x)","(2.0,)"}'), ('pa', '{"(1.0,)"}'),
  ('tv', 'a b'), ('tv', 'b a'), ('tv', 'a'), ('ov', '1 2'), ('ov', '2 1');

-- the oracle: same rows, same spelling.  A hashed aggregate keeps the first of
-- equal keys, as the view does; sorting would keep any.
CREATE FUNCTION differences() RETURNS TABLE (view name, problem text) LANGUAGE plpgsql
  SET enable_sort = off SET max_parallel_workers_per_gather = 0 SET jit = off AS $$
DECLARE
  n bigint;
  batch text;
  queries int := 0;
BEGIN
  FOR view, batch IN
    SELECT matviewname, rtrim(definition, ';') FROM pg_matviews WHERE schemaname = 'keys' ORDER BY 1
  LOOP
    queries := queries + 1;
    EXECUTE format('WITH v AS MATERIALIZED (SELECT r::text FROM %I r), b AS MATERIALIZED (SELECT r::text FROM (%s) r)
      SELECT count(*) FROM ((TABLE v EXCEPT ALL TABLE b) UNION ALL (TABLE b EXCEPT ALL TABLE v)) d', view, batch) INTO n;
    problem := n || ' rows differ';
    IF n > 0 THEN RETURN NEXT; END IF;
    CONTINUE WHEN view NOT LIKE 'v\_%';
    -- by key: each event finds the group that counted it, by a lookup where there is one
    EXECUTE format('SELECT ((SELECT sum((SELECT n FROM %1$I v WHERE v.k = e.%2$I)) FROM kv e WHERE %2$I IS DISTINCT FROM NULL)
      IS DISTINCT FROM (SELECT sum(n * n) FROM %1$I WHERE k IS DISTINCT FROM NULL))::int', view, substr(view, 3)) INTO STRICT n;
    problem := 'lookups differ';
    IF n > 0 THEN RETURN NEXT; END IF;
  END LOOP;
  view := NULL;
  problem := queries || ' views compared';
  RETURN NEXT;
END $$;

-- every value in a transaction of its own; then all in one, backwards; then NULLs
CREATE PROCEDURE feed(descending boolean, commits boolean) LANGUAGE plpgsql AS $$
DECLARE
  s record;
BEGIN
  FOR s IN SELECT * FROM spellings ORDER BY CASE WHEN descending THEN -ord ELSE ord END LOOP
    EXECUTE format('INSERT INTO kv (%I) VALUES (%L)', s.col, s.val);
    IF commits THEN COMMIT; END IF;
  END LOOP;
END $$;
CALL feed(false, true);
SELECT weir.wait_for();
SELECT * FROM differences();
CALL feed(true, false);
INSERT INTO kv DEFAULT VALUES;
INSERT INTO kv (num, tci, bp4, iv, p) VALUES
  (1, 'k', 'z', '1 month', '(1,a)'), (1.0, 'K', 'z ', '30 days', '(1.00,a)'), (1.00, 'k', 'z', '29 days', '(1,a)'), (NULL, NULL, NULL, NULL, NULL);
SELECT weir.wait_for();
SELECT * FROM differences();
SELECT weir.checkpoint();

-- another worker takes over what is in memory
SELECT count(pg_terminate_backend(pid, 10000)) > 0 AS ended FROM weir.workers;
CALL feed(false, false);
SELECT weir.wait_for();
SELECT * FROM differences();
SELECT weir.checkpoint();
CALL feed(true, false);
SELECT weir.wait_for();
SELECT * FROM differences();

-- some of it to look at
SELECT k, n FROM v_num ORDER BY k;
SELECT k, n FROM v_f8 ORDER BY k;
SELECT left(k, 12) AS k, length(k), n FROM v_tci ORDER BY 1, 2;
SELECT k, n FROM v_cx ORDER BY k;
SELECT '<' || k || '>' AS k, length(k), n FROM v_bp ORDER BY k;
SELECT '<' || k || '>' AS k, n FROM v_bp4 ORDER BY k;
SELECT k, n FROM v_iv ORDER BY k;
SELECT k, n FROM v_ia ORDER BY k;
SELECT k, n FROM v_j ORDER BY k;
SELECT k, n FROM v_p ORDER BY k;
SELECT k, n FROM v_rn ORDER BY k;
SELECT * FROM c_const;

-- lookups by other spellings and other types
SELECT (SELECT n FROM v_num WHERE k = 1.0000), (SELECT n FROM v_num WHERE k = 1), (SELECT n FROM v_f8 WHERE k = '-0'),
  (SELECT n FROM v_f8 WHERE k = 'NaN'), (SELECT n FROM v_f8 WHERE k = 0::real), (SELECT n FROM v_f4 WHERE k = 0::float8),
  (SELECT n FROM v_i8 WHERE k = 1::smallint), (SELECT n FROM v_i2 WHERE k = 1::bigint);
SELECT (SELECT n FROM v_tci WHERE k = 'AbC'), (SELECT n FROM v_cx WHERE k = 'WORD'), (SELECT n FROM v_bp WHERE k = 'ab '),
  (SELECT n FROM v_bp4 WHERE k = 'ab'), (SELECT n FROM v_iv WHERE k = '4 weeks 2 days'), (SELECT n FROM v_p WHERE k = ROW(1.000, 'x')::pair),
  (SELECT n FROM v_j WHERE k = '{"a": 1, "b": [1]}'), (SELECT n FROM v_na WHERE k = '{1,2}'), (SELECT n FROM v_vc WHERE k = 'x'::text);
-- under another collation it is another question
SELECT count(*), sum(n) FROM v_tci WHERE k = 'ABC' COLLATE "C";
SELECT count(*), sum(n) FROM v_t WHERE k = 'ABC' COLLATE ci;
SELECT count(*), sum(n) FROM v_nm WHERE k = 'n'::text;
SELECT count(*) FROM c_many WHERE num = 1.0 AND tci = 'K' AND bp4 = 'z' AND iv = '30 days' AND p = ROW(1, 'a')::pair;

\if :{?keep}
\q
\endif
-- UNIQUE holds by the index's equality
CREATE UNIQUE INDEX ON v_t (k COLLATE ci);
CREATE UNIQUE INDEX ON v_t (k text_pattern_ops);
CREATE UNIQUE INDEX ON v_tci (k);
CREATE UNIQUE INDEX ON v_tci (k COLLATE "C");
DROP TABLE kv CASCADE;

-- a composite type that changes changes what is equal, and what states hold: the view says so
CREATE TYPE trio AS (a int, b text);
CREATE TABLE changing (id int, p trio, ps trio[]) USING stream;
CREATE MATERIALIZED VIEW d_row USING continuous AS SELECT c AS k, count(*) AS n FROM changing c GROUP BY c;
CREATE MATERIALIZED VIEW d_type USING continuous AS SELECT p AS k, count(*) AS n FROM changing GROUP BY p;
CREATE MATERIALIZED VIEW d_array USING continuous AS SELECT ps AS k, count(*) AS n FROM changing GROUP BY ps;
CREATE MATERIALIZED VIEW d_id USING continuous AS SELECT id AS k, count(*) AS n, array_agg(p) AS a FROM changing GROUP BY id;
INSERT INTO changing VALUES (1, '(1,a)', '{"(1,a)"}'), (1, '(1,b)', '{"(1,a)"}');
SELECT weir.wait_for();
ALTER TYPE trio ADD ATTRIBUTE c int;
INSERT INTO changing VALUES (1, '(1,a,)', '{"(1,a,)"}'), (1, '(1,b,)', '{"(1,a,)"}');
SELECT weir.wait_for();
SELECT view, state, error FROM weir.views WHERE view::text LIKE 'd_%' ORDER BY view::text;
REFRESH MATERIALIZED VIEW d_row;
REFRESH MATERIALIZED VIEW d_type;
REFRESH MATERIALIZED VIEW d_array;
REFRESH MATERIALIZED VIEW d_id;
SELECT weir.wait_for();
SELECT * FROM differences();
ALTER TABLE changing ADD COLUMN x int;
INSERT INTO changing (id) VALUES (1);
SELECT weir.wait_for();
SELECT view, state, error FROM weir.views WHERE view::text LIKE 'd_%' ORDER BY view::text;
DROP TABLE changing CASCADE;

-- what an aggregate keeps depends on no client's encoding and no label
CREATE TYPE size AS ENUM ('small', 'large');
CREATE TABLE labels (k int, t text, s size) USING stream;
CREATE MATERIALIZED VIEW d_labels USING continuous AS
  SELECT k, array_agg(t) AS t, string_agg(t, '-') AS joined, array_agg(s) AS s, array_agg(ARRAY[t]) AS tt FROM labels GROUP BY k;
INSERT INTO labels VALUES (1, 'ä', 'small'), (1, 'ö', 'large');
SELECT weir.wait_for('d_labels');
SET client_encoding = 'LATIN1';
SELECT length(joined), length(t[1]), length(tt[2][1]), t[1] = left(joined, 1) AS same FROM d_labels;
RESET client_encoding;
ALTER TYPE size RENAME VALUE 'small' TO 'tiny';
INSERT INTO labels VALUES (1, 'ü', 'tiny');
SELECT weir.wait_for('d_labels');
SELECT * FROM d_labels;
DROP TABLE labels CASCADE;
RESET search_path;
DROP SCHEMA keys CASCADE;
