-- One round of what test/tools/soak changes beneath the load.
CREATE MATERIALIZED VIEW soak.brief USING continuous AS
	SELECT window_start, k, count(*) AS n, max(note) AS note FROM soak.ev, tumble(ts, '2 seconds') GROUP BY window_start, k;
CREATE INDEX ON soak.brief (k);
SELECT weir.wait_for('soak.brief');
ALTER MATERIALIZED VIEW soak.hops SET (allowed_lateness = '2 seconds');
ALTER TABLE soak.ord SET (retention_size = '3MB');
DROP MATERIALIZED VIEW soak.brief;
SELECT weir.pause('soak.sets');
SELECT weir.resume('soak.sets');
BEGIN;
LOCK TABLE soak.cut IN EXCLUSIVE MODE;
SELECT weir.wait_for('soak.of_cut');
TRUNCATE soak.cut;
COMMIT;
ALTER MATERIALIZED VIEW soak.hops SET (allowed_lateness = '1 second');
ALTER TABLE soak.ord SET (retention_size = '2MB');
CREATE TABLE soak.short (k int, ts timestamptz NOT NULL) USING stream WITH (event_time = ts);
CREATE MATERIALIZED VIEW soak.of_short USING continuous AS SELECT k, count(*) AS n FROM soak.short GROUP BY k;
INSERT INTO soak.short SELECT i, now() FROM generate_series(1, 100) i;
ALTER TABLE soak.short ADD COLUMN note text;
INSERT INTO soak.short VALUES (1, now(), 'note');
SELECT weir.wait_for('soak.of_short');
DO $$ BEGIN INSERT INTO soak.short VALUES (1, NULL); EXCEPTION WHEN not_null_violation THEN NULL; END $$;
REFRESH MATERIALIZED VIEW soak.of_short;
DROP MATERIALIZED VIEW soak.of_short;
DROP TABLE soak.short;
REFRESH MATERIALIZED VIEW soak.of_cut WITH NO DATA;
REFRESH MATERIALIZED VIEW soak.of_cut;
SELECT weir.checkpoint();
\sleep 500 ms
