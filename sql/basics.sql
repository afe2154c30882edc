-- A stream, a view with a window, a view without: the rows are those of the
-- same query over the stream, less what came late.
SET timezone = 'UTC';

CREATE TABLE bids (auction bigint, bidder bigint, price numeric, ts timestamptz NOT NULL)
  USING stream WITH (event_time = ts, watermark_delay = '10 seconds');
CREATE MATERIALIZED VIEW per_minute USING continuous AS
  SELECT window_start, auction, count(*) AS n, sum(price) AS s, max(price) AS m
  FROM bids, tumble(ts, '1 minute') GROUP BY window_start, auction;
CREATE MATERIALIZED VIEW per_bidder USING continuous AS
  SELECT bidder, count(*) AS n, avg(price) AS a FROM bids GROUP BY bidder;
CREATE MATERIALIZED VIEW total USING continuous AS
  SELECT count(*) AS n, sum(price) AS s FROM bids;

-- empty: no groups, but always the one row of an aggregate without GROUP BY
SELECT weir.wait_for();
SELECT * FROM per_minute;
SELECT * FROM per_bidder;
SELECT * FROM total;
SELECT weir.watermark('bids');

INSERT INTO bids VALUES
  (7, 101, 10.00, '2026-01-01 12:00:10+00'),
  (7, 102, 12.50, '2026-01-01 12:00:40+00'),
  (8, NULL, 3.00, '2026-01-01 12:00:55+00');
INSERT INTO bids VALUES (7, 101, 15, '2026-01-01 12:01:20+00') RETURNING auction;
COPY bids FROM stdin;
8	\N	4.00	2026-01-01 12:01:21+00
\.
SELECT weir.wait_for();
SELECT * FROM per_minute ORDER BY window_start, auction;
SELECT bidder, n, round(a, 2) AS a FROM per_bidder ORDER BY bidder;
SELECT * FROM total;
SELECT weir.watermark('bids'), weir.watermark('per_minute');
SELECT weir.is_final('per_minute', timestamptz '2026-01-01 12:01:00+00') AS first,
       weir.is_final('per_minute', timestamptz '2026-01-01 12:02:00+00') AS second;

-- late for the first minute, in time for the second; never late without a window
INSERT INTO bids VALUES (9, 1, 1, '2026-01-01 12:00:59+00'), (9, 1, 2, '2026-01-01 12:01:01+00');
SELECT weir.wait_for();
SELECT * FROM per_minute WHERE auction = 9;
SELECT * FROM per_bidder WHERE bidder = 1;
SELECT view, state, events_in, late FROM weir.views
WHERE view::text IN ('per_minute', 'per_bidder', 'total') ORDER BY view::text;

-- the query itself, over the stream; both ways
(TABLE per_bidder EXCEPT ALL SELECT bidder, count(*), avg(price) FROM bids GROUP BY bidder)
UNION ALL
(SELECT bidder, count(*), avg(price) FROM bids GROUP BY bidder EXCEPT ALL TABLE per_bidder);

-- what is rolled back never was
BEGIN;
INSERT INTO bids VALUES (9, 1, 100, '2026-01-01 12:01:30+00');
ROLLBACK;
BEGIN;
INSERT INTO bids VALUES (9, 2, 1, '2026-01-01 12:01:30+00');
SAVEPOINT x;
INSERT INTO bids VALUES (9, 2, 100, '2026-01-01 12:01:30+00');
ROLLBACK TO x;
COMMIT;
SELECT weir.wait_for();
SELECT * FROM per_bidder WHERE bidder IN (1, 2) ORDER BY bidder;

-- the end of the stream
SELECT weir.advance_watermark('bids', '2026-01-01 13:00:00+00');
SELECT weir.wait_for();
SELECT bool_and(weir.is_final('per_minute', window_start + '1 minute')) FROM per_minute;
SELECT * FROM per_minute ORDER BY window_start, auction;

DROP MATERIALIZED VIEW per_minute, per_bidder, total;
DROP TABLE bids;
