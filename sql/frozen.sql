-- A view's result depends on the settings of the moment of its CREATE, whatever
-- those of its worker, its readers or a REFRESH are.
SET timezone = 'UTC';
CREATE TABLE fr (t text, b bytea) USING stream;
CREATE FUNCTION fr_setting(name text) RETURNS text STABLE LANGUAGE plpgsql AS 'BEGIN RETURN current_setting(name); END';

-- each query differs where its setting does
SET default_text_search_config = 'pg_catalog.simple';
CREATE MATERIALIZED VIEW fr_search USING continuous AS
  SELECT to_tsvector(t)::text AS v, count(*) AS n FROM fr GROUP BY 1;
SET xmloption = document;
CREATE MATERIALIZED VIEW fr_xml USING continuous WITH (on_error = skip) AS
  SELECT count(t::xml) AS n FROM fr;
SET xmlbinary = hex;
CREATE MATERIALIZED VIEW fr_binary USING continuous AS
  SELECT string_agg(xmlelement(name x, b)::text, ',') AS v FROM fr;
-- above the aggregate: it is the reader's process that computes it
SET bytea_output = escape;
CREATE MATERIALIZED VIEW fr_above USING continuous AS
  SELECT string_agg(b, '')::text AS v FROM fr;
SET timezone_abbreviations = 'India';
CREATE MATERIALIZED VIEW fr_abbrev USING continuous AS
  SELECT max(substring(t FROM '2026.*IST')::timestamptz) AS v FROM fr;
SET lc_monetary = 'POSIX'; SET lc_numeric = 'POSIX'; SET lc_time = 'POSIX'; SET lc_messages = 'POSIX';
CREATE MATERIALIZED VIEW fr_lc USING continuous AS
  SELECT fr_setting('lc_monetary') AS monetary, fr_setting('lc_numeric') AS numeric,
    fr_setting('lc_time') AS time, count(*) AS n FROM fr GROUP BY 1, 2, 3;
-- what the last of them has kept (lc_messages is not of a result)
SELECT relname, string_agg(name, ' ') FROM pg_class,
  regexp_matches(array_to_string(reloptions, ' '), '(lc_\w+|xml\w+|default_text_search_config|timezone_abbreviations)', 'g') m(m),
  unnest(m) name WHERE relname = 'fr_lc' GROUP BY 1;
CREATE FUNCTION fr_shown() RETURNS SETOF text LANGUAGE sql AS $$
  SELECT 'search ' || v || ' ' || n FROM fr_search UNION ALL
  SELECT 'xml ' || n FROM fr_xml UNION ALL
  SELECT 'binary ' || v FROM fr_binary UNION ALL
  SELECT 'above ' || v FROM fr_above UNION ALL
  SELECT 'abbrev ' || to_char(v AT TIME ZONE 'UTC', 'HH24:MI') FROM fr_abbrev UNION ALL
  SELECT 'lc ' || concat_ws(' ', monetary, numeric, time, n) FROM fr_lc $$;

RESET default_text_search_config; RESET xmloption; RESET xmlbinary; RESET bytea_output; RESET timezone_abbreviations;
RESET lc_monetary; RESET lc_numeric; RESET lc_time; RESET lc_messages;
INSERT INTO fr VALUES ('the cats are running', '\x00ff'), ('<a/>', '\xabcd'), ('2026-01-01 12:00 IST', NULL);
SELECT weir.wait_for();
SELECT fr_shown() ORDER BY 1;
-- what the same queries say elsewhere
SELECT to_tsvector('the cats are running'), xmlelement(name x, '\x00ff'::bytea), to_char('2026-01-01 12:00 IST'::timestamptz, 'HH24:MI'),
  'not a document'::xml IS NOT NULL AS content, '\x00ff'::bytea::text AS above, fr_setting('lc_numeric');
-- read again from the checkpoint, and rebuilt by a session of other settings
SELECT weir.checkpoint();
SET default_text_search_config = 'pg_catalog.german'; SET timezone_abbreviations = 'Australia'; SET xmloption = content;
REFRESH MATERIALIZED VIEW fr_search;
REFRESH MATERIALIZED VIEW fr_xml;
REFRESH MATERIALIZED VIEW fr_binary;
REFRESH MATERIALIZED VIEW fr_above;
REFRESH MATERIALIZED VIEW fr_abbrev;
REFRESH MATERIALIZED VIEW fr_lc;
SELECT weir.wait_for();
SELECT fr_shown() ORDER BY 1;
RESET default_text_search_config; RESET timezone_abbreviations; RESET xmloption;
DROP FUNCTION fr_shown;
DROP TABLE fr CASCADE;
DROP FUNCTION fr_setting;
