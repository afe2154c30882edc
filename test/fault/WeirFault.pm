# The schema of the fault harness and what must hold of it: the streams, a heap
# twin of each that is written in the same transactions, the views, and for each
# view the query that says what it must show.
package WeirFault;

use strict;
use warnings;

use Exporter 'import';

our @EXPORT = qw(fault_schema fault_views fault_model fault_checks
  fault_amchecks fault_leftovers);

# Event time of ev; a row's windows are judged by it and by what the log's
# transactions before its own have raised the watermark to.
use constant DELAY => 20;

# name => { late => late table or none, lateness (seconds), with (further
# options), query (%s stands for the relation), model (what it must show,
# from judged, ord, ord_twin or brief_twin) }
my %views = (
	per_window => {
		late  => 1,
		query => q{SELECT window_start, k, count(*) AS n, sum(v) AS s,
			min(v) AS lo, max(v) AS hi, avg(v) AS mean
			FROM ev, tumble(ts, '10 seconds') GROUP BY window_start, k},
		model => q{SELECT window_start, k, count(*), sum(v), min(v), max(v), avg(v)
			FROM judged j, tumble(j.ts, '10 seconds') WHERE window_end > w
			GROUP BY window_start, k},
		too_late => q{SELECT id, we, w FROM (SELECT id, max(window_end) AS we, w
			FROM judged j, tumble(j.ts, '10 seconds') GROUP BY id, w) x
			WHERE we <= w},
	},
	hops => {
		late     => 1,
		lateness => 5,
		query    => q{SELECT window_start, window_end, k, count(*) AS n,
			sum(v) AS s, min(id) AS first
			FROM ev, hop(ts, '5 seconds', '20 seconds') WHERE v >= 0
			GROUP BY window_start, window_end, k},
		model => q{SELECT window_start, window_end, k, count(*), sum(v), min(id)
			FROM judged j, hop(j.ts, '5 seconds', '20 seconds')
			WHERE window_end + interval '5 seconds' > w AND v >= 0
			GROUP BY window_start, window_end, k},
		too_late => q{SELECT id, we, w FROM (SELECT id, max(window_end) AS we, w
			FROM judged j, hop(j.ts, '5 seconds', '20 seconds') WHERE v >= 0
			GROUP BY id, w) x WHERE we + interval '5 seconds' <= w},
		partial => q{SELECT count(*) FROM (SELECT id FROM judged j,
			hop(j.ts, '5 seconds', '20 seconds') WHERE v >= 0 GROUP BY id
			HAVING bool_or(window_end + interval '5 seconds' <= w)
			AND bool_or(window_end + interval '5 seconds' > w)) x},
	},
	growing => {
		late  => 1,
		query => q{SELECT window_end, k, count(*) AS n, sum(v) AS s
			FROM ev, cumulate(ts, '5 seconds', '30 seconds')
			GROUP BY window_end, k},
		model => q{SELECT window_end, k, count(*), sum(v)
			FROM judged j, cumulate(j.ts, '5 seconds', '30 seconds')
			WHERE window_end > w GROUP BY window_end, k},
		too_late => q{SELECT id, we, w FROM (SELECT id, max(window_end) AS we, w
			FROM judged j, cumulate(j.ts, '5 seconds', '30 seconds')
			GROUP BY id, w) x WHERE we <= w},
		partial => q{SELECT count(*) FROM (SELECT id FROM judged j,
			cumulate(j.ts, '5 seconds', '30 seconds') GROUP BY id
			HAVING bool_or(window_end <= w) AND bool_or(window_end > w)) x},
	},
	# An event that is late is not in the log for a session; which ones are
	# late, the late table says, and too_late that each had reason to.
	sessions => {
		late  => 1,
		query => q{SELECT window_start, window_end, k, count(*) AS n, sum(v) AS s
			FROM ev, session(ts, '1 second') WHERE k % 10 = 3
			GROUP BY window_start, window_end, k},
		model => q{SELECT window_start, window_end, k, count(*), sum(v)
			FROM judged_in_session j, session(j.ts, '1 second')
			GROUP BY window_start, window_end, k},
	},
	sets => {
		query => q{SELECT window_start, k % 7 AS k7, grouping(k % 7) AS g,
			count(*) AS n, sum(v) AS s
			FROM ev, tumble(ts, '10 seconds', '1970-01-01 00:00:03Z')
			GROUP BY GROUPING SETS ((window_start, k % 7), (window_start))},
		model => q{SELECT window_start, k % 7, grouping(k % 7), count(*), sum(v)
			FROM judged j, tumble(j.ts, '10 seconds', '1970-01-01 00:00:03Z')
			WHERE window_end > w
			GROUP BY GROUPING SETS ((window_start, k % 7), (window_start))},
	},
	arrays => {
		query => q{SELECT window_start, k % 5 AS k5, count(*) AS n,
			array_agg(id) AS ids,
			string_agg(DISTINCT note, ',' ORDER BY note) AS notes
			FROM ev, tumble(ts, '15 seconds') GROUP BY window_start, k % 5},
		model => q{SELECT window_start, k % 5, count(*), array_agg(id ORDER BY o),
			string_agg(DISTINCT note, ',' ORDER BY note)
			FROM judged j, tumble(j.ts, '15 seconds') WHERE window_end > w
			GROUP BY window_start, k % 5},
	},
	finals => {
		with  => 'emit = final',
		query => q{SELECT date_bin('10 seconds', ts, '2000-01-01 00:00Z') AS bin,
			k % 3 AS k3, count(*) FILTER (WHERE v > 500) AS n, sum(v) AS s,
			percentile_disc(0.5) WITHIN GROUP (ORDER BY v) AS mid
			FROM ev GROUP BY date_bin('10 seconds', ts, '2000-01-01 00:00Z'), k % 3
			HAVING count(*) > 1},
		model => q{SELECT date_bin('10 seconds', ts, '2000-01-01 00:00Z'), k % 3,
			count(*) FILTER (WHERE v > 500), sum(v),
			percentile_disc(0.5) WITHIN GROUP (ORDER BY v) FROM judged
			WHERE date_bin('10 seconds', ts, '2000-01-01 00:00Z')
			+ interval '10 seconds' > w
			GROUP BY date_bin('10 seconds', ts, '2000-01-01 00:00Z'), k % 3
			HAVING count(*) > 1 AND date_bin('10 seconds', ts, '2000-01-01 00:00Z')
			+ interval '10 seconds' <= (SELECT weir.watermark('ev'))},
	},
	# Windows of processing time, of which a batch query knows nothing: only
	# their sum is looked at.
	arrivals => {
		query => q{SELECT window_start, count(*) AS n, sum(id) AS ids
			FROM ev, tumble(now(), '1 second') GROUP BY window_start},
		shown => 'SELECT sum(n), sum(ids) FROM arrivals',
		model => 'SELECT count(*), sum(id) FROM judged',
	},
	# The few events that cannot be divided by go into weir.errors.
	skips => {
		with  => 'on_error = skip',
		query => q{SELECT k % 4 AS k4, count(*) AS n, sum(1000 / (v - 77)) AS s
			FROM ev GROUP BY k % 4},
		model => q{SELECT k % 4, count(*), sum(1000 / (v - 77)) FROM judged
			WHERE v IS DISTINCT FROM 77 GROUP BY k % 4},
	},
	totals => {
		query => q{SELECT k, count(*) AS n, count(v) AS values, sum(v) AS s,
			count(DISTINCT v % 100) AS d, max(note) AS note,
			sum(v * 0.001) AS exact, stddev_samp(v) AS spread
			FROM ev GROUP BY k},
		model => q{SELECT k, count(*), count(v), sum(v), count(DISTINCT v % 100),
			max(note), sum(v * 0.001), stddev_samp(v) FROM judged GROUP BY k},
	},
	pairs => {
		query => q{SELECT k, sum(v) AS s, count(*) AS n FROM ord GROUP BY k},
		model => q{SELECT k, sum(v), count(*) FROM ord_twin GROUP BY k},
	},
	everything => {
		query => q{SELECT count(*) AS n, sum(v) AS s, sum(id) AS ids FROM ord},
		model => q{SELECT count(*), sum(v), sum(id) FROM ord_twin},
	},
	counted => {
		query => q{SELECT window_start, window_end, k % 3 AS k3, count(*) AS n,
			sum(id) AS ids FROM ord, count_window(50, 25)
			GROUP BY window_start, window_end, k % 3},
		model => q{SELECT window_start, window_end, k % 3, count(*), sum(id)
			FROM ord, count_window(50, 25)
			GROUP BY window_start, window_end, k % 3},
	},
	# Its stream forgets; it does not.
	kept => {
		query => q{SELECT k, count(*) AS n, sum(id) AS ids FROM brief GROUP BY k},
		model => q{SELECT k, count(*), sum(id) FROM brief_twin GROUP BY k},
	});

sub fault_views
{
	return \%views;
}

sub fault_schema
{
	my $delay = DELAY;
	my $sql   = <<"SQL";
CREATE TABLE ev (id bigint, tx bigint, k int, v int, note text,
    ts timestamptz NOT NULL) USING stream
  WITH (event_time = ts, watermark_delay = '$delay seconds', max_future = infinity);
CREATE TABLE ord (id bigint, tx bigint, k int, v int) USING stream;
CREATE TABLE brief (id bigint, tx bigint, k int, pad text) USING stream
  WITH (retention_size = '200kB');
CREATE TABLE ev_twin (id bigint, tx bigint, k int, v int, note text, ts timestamptz);
CREATE TABLE ord_twin (id bigint, tx bigint, k int, v int);
CREATE TABLE brief_twin (id bigint, tx bigint, k int, pad text);
CREATE TABLE done (tx bigint PRIMARY KEY);
CREATE TABLE seen_final (window_start timestamptz, k int, n bigint, s numeric,
  UNIQUE NULLS NOT DISTINCT (window_start, k, n, s));
CREATE TABLE seen_emitted (bin timestamptz, k3 int, n bigint, s bigint, mid int,
  UNIQUE NULLS NOT DISTINCT (bin, k3, n, s, mid));
CREATE TABLE hog (x text);
ALTER TABLE hog ALTER x SET STORAGE plain;
INSERT INTO hog SELECT repeat('x', 5000) FROM generate_series(1, 64);
ALTER TABLE hog SET (parallel_workers = 16);

-- Rows of a transaction, the same for the same arguments.
CREATE FUNCTION h(bigint, int, int) RETURNS bigint LANGUAGE sql IMMUTABLE AS
  'SELECT (hashint8extended(\$1, \$2) & 2147483647) % \$3';
CREATE FUNCTION ev_rows(tx bigint, first int, n int, t timestamptz, seed int)
  RETURNS SETOF ev LANGUAGE sql AS \$\$
  SELECT id, tx, h(id, seed, 40)::int,
         CASE WHEN h(id, seed + 1, 50) = 0 THEN NULL
              ELSE h(id, seed + 2, 1100)::int - 100 END,
         CASE WHEN h(id, seed + 3, 9) > 2
              THEN repeat('n', h(id, seed + 4, 40)::int) || h(id, seed + 5, 20) END,
         t - interval '1 millisecond' * h(id, seed + 6,
           CASE WHEN h(id, seed + 7, 100) < 90 THEN 5000
                WHEN h(id, seed + 7, 100) < 98 THEN 20000 ELSE 90000 END)
  FROM (SELECT tx * 10000 + first + i AS id FROM generate_series(1, n) i) x \$\$;

CREATE FUNCTION put_ev(tx bigint, first int, n int, t timestamptz, seed int)
  RETURNS void LANGUAGE sql AS \$\$
  WITH new AS (INSERT INTO ev SELECT * FROM ev_rows(tx, first, n, t, seed)
               RETURNING *)
  INSERT INTO ev_twin SELECT * FROM new \$\$;

-- Two events that cancel, in one statement.
CREATE FUNCTION put_pairs(tx bigint, first int, n int, seed int)
  RETURNS void LANGUAGE sql AS \$\$
  WITH new AS (INSERT INTO ord
    SELECT id * 2 + sign, tx, h(id * 2 + sign, seed, 30)::int,
           (1 - 2 * sign) * h(id, seed + 1, 1000)::int
    FROM (SELECT tx * 10000 + first + i AS id FROM generate_series(1, n) i) x,
         generate_series(0, 1) sign
    RETURNING *)
  INSERT INTO ord_twin SELECT * FROM new \$\$;

CREATE FUNCTION put_brief(tx bigint, first int, n int, seed int)
  RETURNS void LANGUAGE sql AS \$\$
  WITH new AS (INSERT INTO brief
    SELECT id, tx, h(id, seed, 10)::int, repeat('p', h(id, seed + 1, 200)::int)
    FROM (SELECT tx * 10000 + first + i AS id FROM generate_series(1, n) i) x
    RETURNING *)
  INSERT INTO brief_twin SELECT * FROM new \$\$;

-- Somebody who is committing.
CREATE FUNCTION committer() RETURNS int LANGUAGE plpgsql AS \$\$
DECLARE found int;
BEGIN
  FOR i IN 1 .. 1000 LOOP
    PERFORM pg_stat_clear_snapshot();
    SELECT pid INTO found FROM pg_stat_activity
      WHERE state = 'active' AND query ~ '^(COMMIT|PREPARE)' LIMIT 1;
    EXIT WHEN found IS NOT NULL;
    PERFORM pg_sleep(0.0005);
  END LOOP;
  RETURN found;
END \$\$;

-- One after the other; a cancel means nothing to who is idle.
CREATE FUNCTION signal_clients(how text, n int) RETURNS void LANGUAGE plpgsql AS \$\$
BEGIN
  FOR i IN 1 .. n LOOP
    PERFORM pg_stat_clear_snapshot();
    EXECUTE format('SELECT %I(pid) FROM pg_stat_activity'
      ' WHERE backend_type = ''client backend'' AND pid <> pg_backend_pid()'
      ' AND (state = ''active'' OR %L = ''pg_terminate_backend'')'
      ' ORDER BY random() LIMIT 1', how, how);
    PERFORM pg_sleep(0.03 * random());
  END LOOP;
END \$\$;

-- The session "ddl", so many seconds after it has begun a statement that counts,
-- if it is still at it or at the next.
CREATE FUNCTION signal_ddl(how text, delay float8) RETURNS void LANGUAGE plpgsql AS \$\$
BEGIN
  FOR i IN 1 .. 500 LOOP
    PERFORM pg_stat_clear_snapshot();
    PERFORM FROM pg_stat_activity WHERE application_name = 'ddl'
      AND state = 'active' AND query !~ '^(SET|BEGIN|SELECT FROM pg_sleep)';
    EXIT WHEN FOUND;
    PERFORM pg_sleep(0.001);
  END LOOP;
  PERFORM pg_sleep(delay);
  EXECUTE format('SELECT %I(pid) FROM pg_stat_activity'
    ' WHERE application_name = ''ddl''', how);
END \$\$;

-- All that there is room for, for so many seconds; some hundred at a time, as
-- what a block has taken goes when it fails.
CREATE FUNCTION hold_locks(seconds float8) RETURNS boolean LANGUAGE plpgsql AS \$\$
DECLARE
  step int := 500;
  taken int := 0;
BEGIN
  WHILE step > 0 AND taken < 1000000 LOOP
    BEGIN
      PERFORM pg_advisory_xact_lock(taken + j) FROM generate_series(1, step) j;
      taken := taken + step;
    EXCEPTION WHEN out_of_memory THEN
      step := step / 4;
    END;
  END LOOP;
  PERFORM pg_sleep(seconds);
  RETURN step = 0;
END \$\$;

-- Blocks with exceptions are subtransactions that nobody named.
CREATE FUNCTION put_caught(tx bigint, first int, t timestamptz, seed int)
  RETURNS void LANGUAGE plpgsql AS \$\$
BEGIN
  FOR i IN 0 .. 5 LOOP
    BEGIN
      PERFORM put_ev(tx, first + i * 10, 5, t, seed);
      PERFORM put_pairs(tx, first + i * 10, 2, seed);
      IF i % 2 = 1 THEN RAISE division_by_zero; END IF;
    EXCEPTION WHEN division_by_zero THEN NULL;
    END;
  END LOOP;
END \$\$;
SQL

	foreach my $name (sort keys %views)
	{
		my $view = $views{$name};
		my @with;

		push @with, $view->{with} if $view->{with};
		push @with, "late_table = late_events" if $view->{late};
		push @with, "allowed_lateness = '$view->{lateness} seconds'"
		  if $view->{lateness};
		$sql .= "CREATE MATERIALIZED VIEW $name USING continuous"
		  . (@with ? ' WITH (' . join(', ', @with) . ')' : '')
		  . " AS $view->{query};\n";
	}
	$sql .= "CREATE INDEX ON per_window (window_start, k);\n"
	  . "CREATE INDEX ON hops (k);\n";
	return $sql;
}

# Temporary tables: each event with its place in the log and the watermark that
# the transactions before its own have left.
sub fault_model
{
	my $delay = DELAY;

	return <<"SQL";
CREATE TEMP TABLE placed AS SELECT *, weir.log_order('ev', ctid) AS o FROM ev;
CREATE TEMP TABLE judged AS
  SELECT p.*, coalesce(t.w, '-infinity') AS w FROM placed p JOIN
    (SELECT tx, max(m) OVER (ORDER BY o ROWS BETWEEN UNBOUNDED PRECEDING
                             AND 1 PRECEDING) - interval '$delay seconds' AS w
     FROM (SELECT tx, max(ts) AS m, min(o) AS o FROM placed GROUP BY tx) x) t
  USING (tx);
CREATE TEMP TABLE judged_in_session AS
  SELECT * FROM judged WHERE k % 10 = 3 AND id NOT IN
    (SELECT id FROM late_events WHERE late_view = 'sessions'::regclass);
CREATE INDEX ON judged (id);
ANALYZE judged;
ANALYZE judged_in_session;
SQL
}

# ([ name, query that gives the number of things that are wrong ], ...), run
# behind fault_model() when nothing writes and all is consumed.
sub fault_checks
{
	my @checks;
	my $differ = sub {
		my ($x, $y) = @_;

		return "SELECT (SELECT count(*) FROM ($x EXCEPT ALL $y) a)"
		  . " + (SELECT count(*) FROM ($y EXCEPT ALL $x) b)";
	};

	foreach my $name (sort keys %views)
	{
		my $view  = $views{$name};
		my $shown = $view->{shown} // "TABLE $name";

		push @checks, [ "view $name, rows lost or false",
			"SELECT count(*) FROM (($view->{model}) EXCEPT ALL ($shown)) x" ];
		push @checks, [ "view $name, rows doubled or false",
			"SELECT count(*) FROM (($shown) EXCEPT ALL ($view->{model})) x" ];
		push @checks,
		  [ "view $name, late events",
			$differ->(
				"(SELECT id, window_end, watermark FROM late_events"
				  . " WHERE late_view = '$name'::regclass)",
				"($view->{too_late})") ]
		  if $view->{too_late};
		push @checks,
		  [ "view $name, counts of late events",
			"SELECT count(*) FROM weir.views v WHERE view = '$name'::regclass"
			  . " AND late <> (SELECT count(*) FROM late_events"
			  . " WHERE late_view = v.view)" ]
		  if $view->{late};
		push @checks,
		  [ "view $name, count of partly late events",
			"SELECT count(*) FROM weir.views v WHERE view = '$name'::regclass"
			  . " AND late_partial <> ($view->{partial})" ]
		  if $view->{partial};
	}

	foreach my $stream ('ev', 'ord')
	{
		push @checks, [ "stream $stream, events lost",
			"SELECT count(*) FROM (TABLE ${stream}_twin EXCEPT ALL TABLE $stream) x" ];
		push @checks, [ "stream $stream, events doubled or false",
			"SELECT count(*) FROM (TABLE $stream EXCEPT ALL TABLE ${stream}_twin) x" ];
	}
	push @checks,
	  [ 'stream brief, events doubled or false',
		'SELECT count(*) FROM (TABLE brief EXCEPT ALL TABLE brief_twin) x' ],
	  [ 'sessions, late events that would have joined nothing final',
		q{SELECT count(*) FROM late_events l WHERE late_view = 'sessions'::regclass
		  AND watermark <= window_end AND NOT EXISTS
		  (SELECT FROM sessions s WHERE s.k = l.k AND s.window_end < l.watermark
		   AND s.window_start <= l.ts + interval '1 second'
		   AND l.ts <= s.window_end)} ],
	  [ 'sessions, watermarks and ends of late events',
		q{SELECT count(*) FROM late_events l WHERE late_view = 'sessions'::regclass
		  AND (watermark <> (SELECT w FROM judged j WHERE j.id = l.id)
		  OR window_end < ts + interval '1 second')} ],
	  [ 'sessions, events that were too late and are counted',
		q{SELECT count(*) FROM judged_in_session
		  WHERE ts + interval '1 second' < w AND NOT EXISTS
		  (SELECT FROM sessions s WHERE s.k = judged_in_session.k
		   AND s.window_start <= ts AND ts < s.window_end AND s.n > 1)} ],
	  [ 'late tables, events twice',
		'SELECT count(*) FROM (SELECT FROM late_events GROUP BY late_view, id'
		  . ' HAVING count(*) > 1) x' ],
	  [ 'skipped events',
		$differ->(
			"(SELECT (event->>'id')::bigint FROM weir.errors WHERE view = 'skips'::regclass"
			  . " AND sqlstate = '22012')",
			'(SELECT id FROM judged WHERE v = 77)') ],
	  [ 'rows seen as final and changed afterwards',
		'SELECT count(*) FROM (TABLE seen_final EXCEPT'
		  . ' SELECT window_start, k, n, s FROM per_window) x' ],
	  [ 'rows that emit = final has shown and changed afterwards',
		'SELECT count(*) FROM (TABLE seen_emitted EXCEPT TABLE finals) x' ],
	  [ 'watermark of the stream',
		q{SELECT count(*) FROM weir.streams WHERE stream = 'ev'::regclass AND
		  watermark IS DISTINCT FROM (SELECT max(ts) - interval '}
		  . DELAY . q{ seconds' FROM ev)} ],
	  [ 'watermarks of views',
		q{SELECT count(*) FROM weir.views WHERE view = 'per_window'::regclass AND
		  watermark IS DISTINCT FROM weir.watermark('ev')} ],
	  [ 'views that lag when nothing is left',
		'SELECT count(*) FROM weir.views WHERE lag_events <> 0'
		  . " OR state <> 'running'" ],
	  [ 'events that views say they have met',
		q{SELECT count(*) FROM weir.views WHERE view IN ('totals'::regclass,
		  'per_window', 'arrays') AND events_in <> (SELECT count(*) FROM ev)} ],
	  [ 'prepared transactions left', 'SELECT count(*) FROM pg_prepared_xacts' ],
	  [ 'leftovers of rebuilds',
		'SELECT (SELECT count(*) FROM weir.late_pending)'
		  . ' + (SELECT count(*) FROM weir.view_pending)'
		  . " + (SELECT count(*) FROM pg_class WHERE relname ~ '^pg_temp_[0-9]+')" ],
	  [ 'temporary files', 'SELECT count(*) FROM pg_ls_tmpdir()' ],
	  [ 'temporary relations of others',
		q{SELECT count(*) FROM pg_class WHERE relpersistence = 't'
		  AND relnamespace <> pg_my_temp_schema()
		  AND relnamespace <> (SELECT oid FROM pg_namespace WHERE nspname =
		    replace((SELECT nspname FROM pg_namespace
		      WHERE oid = pg_my_temp_schema()), 'temp', 'toast_temp'))} ],
	  [ 'locks of nobody',
		'SELECT count(*) FROM pg_locks WHERE pid IS NULL OR pid NOT IN'
		  . ' (SELECT pid FROM pg_stat_activity)' ],
	  [ 'advisory locks',
		"SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'" ],
	  [ 'checkpoints of views that are not there',
		'SELECT count(*) FROM weir.view_state s WHERE NOT EXISTS'
		  . ' (SELECT FROM pg_class c WHERE c.oid = s.view)' ];
	return @checks;
}

# The files, as amcheck sees them: all heaps and all B-trees.  A B-tree that is
# broken raises.
sub fault_amchecks
{
	return (
		[ 'damage in heaps',
			q{SELECT count(*) FROM pg_class c, LATERAL verify_heapam(c.oid) v
			  WHERE c.relkind IN ('r', 'm', 't') AND c.relpersistence = 'p'
			  AND c.relam = (SELECT oid FROM pg_am WHERE amname = 'heap')} ],
		[ 'damage in indexes',
			q{SELECT count(bt_index_check(i.oid, t.relam = h.oid)) - count(*)
			  FROM pg_class i JOIN pg_index x ON i.oid = x.indexrelid
			  JOIN pg_class t ON t.oid = x.indrelid
			  CROSS JOIN (SELECT oid FROM pg_am WHERE amname = 'heap') h
			  WHERE i.relam = (SELECT oid FROM pg_am WHERE amname = 'btree')
			  AND i.relpersistence = 'p' AND x.indisvalid} ]);
}

# Rows that the extension's tables should not hold when there is no stream.
sub fault_leftovers
{
	return ' SELECT '
	  . join(' + ',
		map { "(SELECT count(*) FROM weir.$_)" }
		  qw(view_wish view_position view_state view_pending late_pending
		  error_log stream_trim stream_end));
}

1;
