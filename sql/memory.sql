-- Views and streams that are gone leave nothing in the memory of a session.
CREATE PROCEDURE come_and_go(n int) LANGUAGE plpgsql AS $$
DECLARE
	all_rows bigint;
BEGIN
	FOR i IN 1 .. n LOOP
		CREATE TABLE m_stream (k int, ts timestamptz NOT NULL) USING stream WITH (event_time = ts);
		COMMIT;
		CREATE MATERIALIZED VIEW m_view USING continuous AS SELECT k, count(*) AS n FROM m_stream GROUP BY k;
		COMMIT;
		INSERT INTO m_stream VALUES (i, now());
		COMMIT;
		PERFORM weir.wait_for('m_view');
		EXECUTE 'SELECT count(*) FROM m_view' INTO all_rows;
		IF all_rows <> 1 THEN RAISE 'view has % rows', all_rows; END IF;
		COMMIT;
		DROP MATERIALIZED VIEW m_view;
		DROP TABLE m_stream;
		COMMIT;
	END LOOP;
END $$;
CALL come_and_go(2);
-- room for what is pinned or yet to be swept, not for one of each
CREATE TEMP TABLE before AS SELECT name, count(*) AS n, sum(used_bytes) AS used FROM pg_backend_memory_contexts WHERE name LIKE 'weir%' GROUP BY name;
CALL come_and_go(60);
SELECT a.name, a.n, b.n, b.used, a.used FROM before b RIGHT JOIN (SELECT name, count(*) AS n, sum(used_bytes) AS used FROM pg_backend_memory_contexts WHERE name LIKE 'weir%' GROUP BY name) a USING (name)
	WHERE a.n > coalesce(b.n, 0) + 1 OR a.used > coalesce(b.used, 0) + 2048;
DROP PROCEDURE come_and_go(int);
