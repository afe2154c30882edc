-- weir.explain: what holds the watermark, and since when.
SET timezone = 'UTC';
SET datestyle = 'ISO';
SET intervalstyle = postgres;
SET client_min_messages = warning;
CREATE TABLE ex (k int, ts timestamptz NOT NULL) USING stream WITH (event_time = ts, watermark_delay = '10 seconds');
CREATE MATERIALIZED VIEW ex_v USING continuous AS
  SELECT window_start, count(*) AS n FROM ex, tumble(ts, '1 minute') GROUP BY window_start;
-- without the times that come from the clock
CREATE FUNCTION held(view regclass) RETURNS SETOF text LANGUAGE sql AS $$
  SELECT regexp_replace(regexp_replace(line, 'since 20.*\+00', 'since then'), 'Watermark: (?!2020|unset|infinity).*', 'Watermark: of today')
  FROM weir.explain(view) line WHERE line ~ '^(Watermark|Held|Moved|Not held|Behind)' $$;
CREATE FUNCTION since(view regclass) RETURNS timestamptz LANGUAGE sql AS $$
  SELECT substring(line FROM 'since (.*)')::timestamptz FROM weir.explain(view) line WHERE line ~ '^Held by' $$;
SELECT held('ex_v');
-- the latest event
SELECT clock_timestamp() AS t0 \gset
INSERT INTO ex VALUES (1, '2020-01-01 00:00:30Z');
SELECT clock_timestamp() AS t1 \gset
SELECT weir.wait_for();
SELECT held('ex_v');
SELECT since('ex_v') BETWEEN :'t0' AND :'t1' AS then;
-- events that do not raise it change nothing; neither does a new delay
INSERT INTO ex VALUES (1, '2020-01-01 00:00:30Z'), (1, '2020-01-01 00:00:20Z');
ALTER TABLE ex SET (watermark_delay = '20 seconds', idle_timeout = '1 hour');
INSERT INTO ex VALUES (1, '2020-01-01 00:00:35Z');
SELECT weir.wait_for();
SELECT held('ex_v');
SELECT since('ex_v') BETWEEN :'t0' AND :'t1' AS then;
-- a heartbeat, also when there are rows with it
SELECT weir.advance_watermark('ex', '2020-01-01 00:01:00Z');
SELECT weir.wait_for();
SELECT held('ex_v');
BEGIN;
INSERT INTO ex VALUES (1, '2020-01-01 00:00:59Z');
SELECT weir.advance_watermark('ex', '2020-01-01 00:01:10Z');
-- an open transaction does not hold it, but it is no idleness
SELECT held('ex_v');
COMMIT;
SELECT weir.wait_for();
SELECT held('ex_v');
BEGIN;
SELECT weir.advance_watermark('ex', '2020-01-01 00:01:11Z');
INSERT INTO ex VALUES (1, '2020-01-01 00:02:00Z');
COMMIT;
SELECT weir.wait_for();
SELECT held('ex_v');
-- a prepared one neither
ALTER TABLE ex SET (idle_timeout = off);
BEGIN;
INSERT INTO ex VALUES (1, '2020-01-01 00:03:00Z');
PREPARE TRANSACTION 'weir_ex';
SELECT held('ex_v');
ROLLBACK PREPARED 'weir_ex';
-- retention lets the record go, and keeps W
SELECT weir.checkpoint();
ALTER TABLE ex SET (retention = '1 microsecond');
SELECT weir.checkpoint();
SELECT count(*) FROM ex;
SELECT held('ex_v');
ALTER TABLE ex RESET (retention);
-- an event ahead of the clock
INSERT INTO ex VALUES (1, clock_timestamp() + interval '1 hour');
SELECT weir.wait_for();
SELECT held('ex_v');
-- a view that is behind
CREATE MATERIALIZED VIEW ex_b USING continuous AS
  SELECT window_start, sum(1 / k) AS s FROM ex, tumble(ts, '1 minute') GROUP BY window_start;
SELECT weir.wait_for();
INSERT INTO ex VALUES (0, clock_timestamp());
DO $$ BEGIN FOR i IN 1 .. 6000 LOOP EXIT WHEN (SELECT state FROM weir.views WHERE view = 'ex_b'::regclass) = 'failed'; PERFORM pg_sleep(0.01); END LOOP; END $$;
SELECT weir.advance_watermark('ex', now() + interval '2 hours') > now();
SELECT held('ex_b');
SELECT weir.wait_for('ex_v');
SELECT held('ex_v');
DROP MATERIALIZED VIEW ex_b;
-- the end
SELECT weir.advance_watermark('ex', 'infinity');
SELECT weir.wait_for();
SELECT held('ex_v');
DROP TABLE ex CASCADE;
-- the clock
CREATE TABLE ex (k int, ts timestamptz NOT NULL) USING stream WITH (event_time = ts, watermark_delay = '0', idle_timeout = '10 ms');
CREATE MATERIALIZED VIEW ex_v USING continuous AS
  SELECT window_end, count(*) AS n FROM ex, tumble(ts, '1 second') GROUP BY window_end;
INSERT INTO ex VALUES (1, '2020-01-01 00:00:30.5Z');
DO $$ BEGIN FOR i IN 1 .. 6000 LOOP EXIT WHEN weir.is_final('ex_v', '2020-01-01 00:00:31Z'::timestamptz); PERFORM pg_sleep(0.01); END LOOP; END $$;
SELECT regexp_replace(h, 'Watermark: 2020-.*', 'Watermark: after the window') FROM held('ex_v') h;
-- a reader of the view who may not see the stream
CREATE ROLE ex_reader;
GRANT SELECT ON ex_v TO ex_reader;
BEGIN;
INSERT INTO ex VALUES (1, '2020-01-01 00:00:40Z');
SET LOCAL ROLE ex_reader;
SELECT regexp_replace(line, 'since .*', '...') FROM weir.explain('ex_v') line WHERE line ~ '^(Held|Not held)';
ROLLBACK;
DROP TABLE ex CASCADE;
DROP ROLE ex_reader;
DROP FUNCTION held, since;
