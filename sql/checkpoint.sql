-- What checkpoints leave in weir.view_state.
SET timezone = 'UTC';
SET datestyle = 'ISO';
SET client_min_messages = warning;
CREATE SCHEMA checkpoint;
SET search_path = checkpoint, public;
CREATE TABLE t (n int, note text, ts timestamptz) USING stream
  WITH (event_time = ts, watermark_delay = '0 seconds');

-- A group that is large and changes all the time: each checkpoint writes it
-- again, until the older ones are cleared away together with what belongs to
-- final windows.
CREATE MATERIALIZED VIEW large USING continuous AS
  SELECT window_start, count(*) AS n, string_agg(note, '') AS notes
  FROM t, tumble(ts, '1 minute') GROUP BY window_start;
INSERT INTO t VALUES (0, 'in a blob of its own', '2026-01-01 00:00Z');
SELECT weir.wait_for(), weir.checkpoint();
INSERT INTO t SELECT 1, string_agg(md5(i::text), ''), '2026-01-01 00:01Z'
  FROM generate_series(1, 12000) i;
SELECT weir.wait_for(), weir.checkpoint();
DO $$
BEGIN
  FOR i IN 2 .. 12 LOOP
    INSERT INTO t VALUES (i, ' and more', '2026-01-01 00:01:30Z');
    COMMIT;
    PERFORM weir.wait_for();
    PERFORM weir.checkpoint();
  END LOOP;
END $$;
SELECT state, error FROM weir.views WHERE view = 'large'::regclass;
-- versions of the group, of the 12 that were written; none of the first window
SELECT count(*) BETWEEN 1 AND 6 AS few, count(*) FILTER (WHERE seq <= 2) AS old
  FROM weir.view_state WHERE view = 'large'::regclass;
SELECT window_start, n, length(notes), md5(notes) FROM large ORDER BY 1;
SELECT window_start, count(*), length(string_agg(note, '')),
  md5(string_agg(note, '' ORDER BY n))
  FROM t, tumble(ts, '1 minute') GROUP BY window_start ORDER BY 1;
DROP SCHEMA checkpoint CASCADE;
