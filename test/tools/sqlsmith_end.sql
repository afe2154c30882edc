-- After test/tools/sqlsmith: prints what is wrong, nothing if all is well.
SET search_path = smith, public;
SELECT 'views have not caught up' WHERE NOT weir.wait_for(timeout => '120 s');
SELECT format('%s is %s: %s', view, state, error) FROM weir.views WHERE state <> 'running';
CREATE FUNCTION differs(view text) RETURNS SETOF text LANGUAGE plpgsql AS $$
DECLARE
	n bigint;
	-- as an ordinary view, whose query is run
	query text := rtrim(pg_get_viewdef(view::regclass), ';');
BEGIN
	EXECUTE format('SELECT count(*) FROM ((SELECT x::text FROM %1$s x EXCEPT ALL SELECT q::text FROM (%2$s) q)'
		' UNION ALL (SELECT q::text FROM (%2$s) q EXCEPT ALL SELECT x::text FROM %1$s x)) d', view, query) INTO n;
	IF n > 0 THEN
		RETURN NEXT format('%s differs from its query in %s rows', view, n);
	END IF;
END $$;
SELECT differs(v) FROM unnest(ARRAY['total', 'of_types', 'minutes', 'days', 'hops', 'grows', 'sessions', 'counts', 'sets', 'of_part']) v;
