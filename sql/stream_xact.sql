--
-- Streams and transactions: savepoints, exceptions, own reads, cursors, 2PC.
-- Every statement is run on a heap as well, which must hold the same rows.
--
SET timezone = 'UTC';
SET datestyle = 'ISO';
CREATE TABLE s (a int, t text, ts timestamptz DEFAULT '2026-01-01') USING stream
  WITH (event_time = ts);
CREATE TABLE h (a int, t text);
CREATE FUNCTION compare(OUT rows bigint, OUT sum bigint, OUT same boolean)
  LANGUAGE sql AS
$$
  SELECT (SELECT count(*) FROM s), (SELECT sum(a) FROM s),
    NOT EXISTS ((SELECT a, t FROM s EXCEPT ALL TABLE h)
                UNION ALL (TABLE h EXCEPT ALL SELECT a, t FROM s))
$$;

-- own rows: in the middle of a chunk, after a savepoint, after its end
BEGIN;
INSERT INTO s VALUES (1, 'a');
INSERT INTO h VALUES (1, 'a');
SELECT a FROM s;
INSERT INTO s VALUES (2, 'b'), (3, 'b');
INSERT INTO h VALUES (2, 'b'), (3, 'b');
SAVEPOINT a;
INSERT INTO s VALUES (4, 'c');
INSERT INTO h VALUES (4, 'c');
SAVEPOINT b;
INSERT INTO s VALUES (5, 'd');
INSERT INTO h VALUES (5, 'd');
SELECT * FROM compare();
ROLLBACK TO b;
INSERT INTO s VALUES (6, 'e');
INSERT INTO h VALUES (6, 'e');
SELECT * FROM compare();
RELEASE a;
INSERT INTO s VALUES (7, 'f');
INSERT INTO h VALUES (7, 'f');
SAVEPOINT c;
INSERT INTO s SELECT a + 10, 'g' FROM s;
INSERT INTO h SELECT a + 10, 'g' FROM h;
SELECT * FROM compare();
ROLLBACK TO c;
INSERT INTO s SELECT a + 100, t FROM s;
INSERT INTO h SELECT a + 100, t FROM h;
SELECT * FROM compare();
COMMIT;
SELECT * FROM compare();
-- everything rolled back to a savepoint: no event, no record
BEGIN;
SAVEPOINT a;
INSERT INTO s VALUES (0, 'never');
ROLLBACK TO a;
COMMIT;
SELECT * FROM compare();

-- a statement sees no row of its own; a volatile function in it does
INSERT INTO s SELECT a + 1000, t FROM s;
INSERT INTO h SELECT a + 1000, t FROM h;
SELECT * FROM compare();
CREATE FUNCTION number_of(tab regclass) RETURNS bigint LANGUAGE plpgsql AS
$$
DECLARE
  n bigint;
BEGIN
  EXECUTE 'SELECT count(*) FROM ' || tab INTO n;
  RETURN n;
END
$$;
INSERT INTO s SELECT number_of('s'), 'seen' FROM generate_series(1, 5);
INSERT INTO h SELECT number_of('h'), 'seen' FROM generate_series(1, 5);
SELECT * FROM compare();

-- EXCEPTION blocks; and in a function that INSERT ... SELECT calls
TRUNCATE s, h;
DO $$
BEGIN
  FOR i IN 1..10000 LOOP
    BEGIN
      INSERT INTO s VALUES (i, 'block');
      INSERT INTO h VALUES (i, 'block');
      IF i % 3 = 0 THEN
        RAISE EXCEPTION 'no';
      END IF;
    EXCEPTION WHEN raise_exception THEN
      NULL;
    END;
  END LOOP;
END $$;
SELECT * FROM compare();
CREATE FUNCTION nested(tab regclass, i int, n int) RETURNS int LANGUAGE plpgsql AS
$$
BEGIN
  BEGIN
    EXECUTE format('INSERT INTO %s SELECT -%s, ''nested'' FROM generate_series(1, %s)',
                   tab, i, n);
    IF i % 3 = 0 THEN
      RAISE EXCEPTION 'no';
    END IF;
  EXCEPTION WHEN raise_exception THEN
    RETURN i;
  END;
  RETURN i;
END
$$;
INSERT INTO s SELECT nested('s', i, 1), 'outer' FROM generate_series(1, 1000) i;
INSERT INTO h SELECT nested('h', i, 1), 'outer' FROM generate_series(1, 1000) i;
SELECT * FROM compare();
INSERT INTO s SELECT nested('s', i, 300), 'outer' FROM generate_series(1, 20) i;
INSERT INTO h SELECT nested('h', i, 300), 'outer' FROM generate_series(1, 20) i;
SELECT * FROM compare();
BEGIN;
INSERT INTO s SELECT nested('s', i, 3), 'outer' FROM generate_series(1, 100) i;
INSERT INTO h SELECT nested('h', i, 3), 'outer' FROM generate_series(1, 100) i;
SAVEPOINT a;
INSERT INTO s SELECT nested('s', i, 3), 'outer' FROM generate_series(1, 100) i;
SELECT count(*) FROM s;
ROLLBACK TO a;
SELECT * FROM compare();
COMMIT;
SELECT * FROM compare();
-- the memory of many subtransactions is bounded
BEGIN;
DO $$
BEGIN
  FOR i IN 1..50000 LOOP
    BEGIN
      INSERT INTO s VALUES (i, 'block');
    EXCEPTION WHEN raise_exception THEN
      NULL;
    END;
  END LOOP;
END $$;
SELECT sum(total_bytes) < 16 * 1024 * 1024 AS bounded
  FROM pg_backend_memory_contexts WHERE name LIKE 'weir%';
SELECT count(*) FROM s;
ROLLBACK;
BEGIN;
INSERT INTO s SELECT i, 'many' FROM generate_series(1, 300000) i;
SELECT sum(total_bytes) < 1024 * 1024 AS bounded
  FROM pg_backend_memory_contexts WHERE name LIKE 'weir%';
ROLLBACK;
SELECT * FROM compare();

-- cursors keep to what was there when they were opened
TRUNCATE s, h;
BEGIN;
INSERT INTO s VALUES (1, 'x');
DECLARE c1 SCROLL CURSOR FOR SELECT a FROM s;
INSERT INTO s VALUES (2, 'x');
DECLARE c2 SCROLL CURSOR FOR SELECT a FROM s;
INSERT INTO s VALUES (3, 'x');
SAVEPOINT a;
INSERT INTO s VALUES (4, 'x');
DECLARE c3 SCROLL CURSOR FOR SELECT a FROM s ORDER BY a;
INSERT INTO s VALUES (5, 'x');
FETCH ALL FROM c1;
FETCH ALL FROM c2;
FETCH ALL FROM c3;
RELEASE a;
INSERT INTO s VALUES (6, 'x');
DECLARE c4 CURSOR WITH HOLD FOR SELECT a FROM s ORDER BY a;
SELECT a FROM s ORDER BY a;
FETCH BACKWARD ALL FROM c1;
FETCH BACKWARD ALL FROM c2;
FETCH BACKWARD ALL FROM c3;
COMMIT;
FETCH ALL FROM c4;
CLOSE c4;
-- rows by their ctid, while an outer subtransaction has yet to write them
BEGIN;
INSERT INTO s VALUES (7, 'x');
SAVEPOINT a;
INSERT INTO s VALUES (8, 'x');
SAVEPOINT b;
SELECT ctid AS c7 FROM s WHERE a = 7 \gset
SELECT ctid AS c8 FROM s WHERE a = 8 \gset
EXPLAIN (COSTS off) SELECT a FROM s WHERE ctid = '(0,1)';
SELECT a FROM s WHERE ctid = :'c7';
SELECT a FROM s WHERE ctid = :'c8';
SELECT a FROM s WHERE a > 6 FOR SHARE;
ROLLBACK;

-- isolation levels
BEGIN ISOLATION LEVEL SERIALIZABLE;
INSERT INTO s VALUES (9, 'x');
SELECT max(a) FROM s;
ROLLBACK;
BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY;
INSERT INTO s VALUES (9, 'x');
ROLLBACK;

-- TRUNCATE and DROP among savepoints
TRUNCATE s;
BEGIN;
INSERT INTO s VALUES (1, 'x');
SAVEPOINT a;
TRUNCATE s;
INSERT INTO s VALUES (2, 'x');
SELECT a FROM s;
ROLLBACK TO a;
INSERT INTO s VALUES (3, 'x');
COMMIT;
SELECT a FROM s;
BEGIN;
INSERT INTO s VALUES (4, 'x');
TRUNCATE s;
INSERT INTO s VALUES (5, 'x');
COMMIT;
SELECT a FROM s;
BEGIN;
INSERT INTO s VALUES (6, 'x');
SAVEPOINT a;
DROP TABLE s CASCADE;
ROLLBACK TO a;
COMMIT;
SELECT a FROM s;
BEGIN;
CREATE TABLE n (a int) USING stream;
INSERT INTO n VALUES (1);
TRUNCATE n;
INSERT INTO n VALUES (2);
SAVEPOINT a;
TRUNCATE n;
INSERT INTO n VALUES (3);
RELEASE a;
COMMIT;
SELECT a FROM n;
BEGIN;
INSERT INTO n VALUES (4);
DROP TABLE n;
COMMIT;
-- columns that come while rows are not yet written
TRUNCATE s;
BEGIN;
INSERT INTO s VALUES (1, 'old');
ALTER TABLE s ADD COLUMN n int DEFAULT 7;
INSERT INTO s (a, t, n) VALUES (2, 'new', 8);
SELECT a, t, n FROM s ORDER BY a;
SAVEPOINT a;
ALTER TABLE s DROP COLUMN t;
INSERT INTO s (a, n) VALUES (3, 9);
SELECT a, n FROM s ORDER BY a;
ROLLBACK TO a;
COMMIT;
SELECT a, t, n FROM s ORDER BY a;
ALTER TABLE s DROP COLUMN n;

-- prepared transactions: their events count when they commit
TRUNCATE s, h;
BEGIN;
INSERT INTO s SELECT i, 'prepared' FROM generate_series(1, 600) i;
SAVEPOINT a;
INSERT INTO s VALUES (0, 'never');
ROLLBACK TO a;
INSERT INTO s (a, t, ts) VALUES (601, 'prepared', '2026-01-02');
PREPARE TRANSACTION 'weir_xact_1';
SELECT count(*) FROM s;
SELECT weir.watermark('s');
INSERT INTO s VALUES (602, 'between');
COMMIT PREPARED 'weir_xact_1';
SELECT count(*), sum(a) FROM s;
SELECT weir.watermark('s');
BEGIN;
INSERT INTO s VALUES (603, 'prepared');
PREPARE TRANSACTION 'weir_xact_2';
ROLLBACK PREPARED 'weir_xact_2';
SELECT count(*), sum(a) FROM s;
BEGIN;
SAVEPOINT a;
INSERT INTO s VALUES (604, 'prepared');
ROLLBACK TO a;
PREPARE TRANSACTION 'weir_xact_3';
COMMIT PREPARED 'weir_xact_3';
SELECT count(*), sum(a) FROM s;
-- many that are rolled back: none stays in the table of prepared ones
\set ECHO none
SELECT 'BEGIN', format('INSERT INTO s VALUES (%s, ''p'')', i),
    'PREPARE TRANSACTION ''weir_xact''', 'ROLLBACK PREPARED ''weir_xact'''
  FROM generate_series(1, 400) i \gexec
\set ECHO all
SELECT count(*) FROM s WHERE t = 'p';

-- a commit that fails leaves nothing
CREATE TABLE d (a int PRIMARY KEY);
CREATE TABLE f (a int REFERENCES d DEFERRABLE INITIALLY DEFERRED) USING stream;
BEGIN;
INSERT INTO f VALUES (1);
INSERT INTO s VALUES (1000, 'never');
COMMIT;
SELECT count(*) FROM f;
SELECT count(*) FROM s WHERE a = 1000;

-- what was rolled back is in the file: who finds a transaction by its places does
-- not count it, and who reads the whole log does not
CREATE TABLE half (a int) USING stream;
CREATE MATERIALIZED VIEW half_v USING continuous AS SELECT count(*) AS n, sum(a) AS s FROM half;
SELECT weir.wait_for('half_v');
BEGIN;
INSERT INTO half VALUES (1);
SELECT count(*) FROM half;
SAVEPOINT a;
INSERT INTO half VALUES (2);
SELECT count(*) FROM half;
ROLLBACK TO a;
INSERT INTO half VALUES (4);
COMMIT;
SELECT weir.wait_for('half_v');
SELECT * FROM half_v;
CREATE MATERIALIZED VIEW half_w USING continuous AS SELECT count(*) AS n, sum(a) AS s FROM half;
SELECT weir.wait_for('half_w');
SELECT * FROM half_w;

DROP TABLE s, h, d, f, half CASCADE;
DROP FUNCTION compare, number_of, nested;
