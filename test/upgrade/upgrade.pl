# pg_upgrade with live continuous views: what they have counted stays counted,
# open windows go on, nothing is counted twice, whether the files are copied or
# linked; and the same by a dump of the new version and its restore.  The streams' events are mostly gone from the log by then, so that
# nothing can be rebuilt from them; a heap table beside each stream, written by
# the same transactions, says what the views have to show.
#
# WEIR_OLD, WEIR_NEW: where the two servers are, each with the extension (run).

use strict;
use warnings;

use lib 'test/tap';

use Cwd qw(getcwd);
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use WeirTest;

my ($old_path, $new_path) = @ENV{qw(WEIR_OLD WEIR_NEW)};
my ($old_major, $new_major) = map { m{(\d+)$} } ($old_path, $new_path);
my $settings = slurp_file('test/pg_weir.conf');
my $top = getcwd();

sub make_node
{
	my ($name, $path) = @_;
	my $node = PostgreSQL::Test::Cluster->new($name, install_path => $path);

	$node->init(extra => [ '--no-locale', '--encoding=UTF8', '--data-checksums' ]);
	$node->append_conf('postgresql.conf', $settings);
	# the checkpoints are those asked for, and that of the stop
	$node->append_conf('postgresql.conf', "weir.checkpoint_interval = '1h'\nmax_worker_processes = 20");
	return $node;
}

# name => [ view's columns to compare, query ]; of windowed views over s what was
# in time, twins instead of streams
my %views = (
	tumbling => q{SELECT window_start, window_end, k, count(*) AS n, sum(v) AS s, avg(v) AS a, sum(n) AS sn,
		avg(n) AS an, avg(k) AS ak, stddev(n) AS sdn, variance(v) AS vv, stddev(k) AS sdk, min(txt), max(txt),
		max(n) AS mn, string_agg(txt, ',' ORDER BY v DESC) AS sa, count(DISTINCT txt) AS cd,
		percentile_cont(0.5) WITHIN GROUP (ORDER BY v) AS p, mode() WITHIN GROUP (ORDER BY m) AS mm,
		bool_or(v > 30) AS b, max(f) FILTER (WHERE k = 1) AS mf, bit_and(v) AS ba
		FROM s, tumble(ts, '10 s') GROUP BY window_start, window_end, k},
	ordered => q{SELECT window_start, window_end, k, sum(f) AS sf, regr_slope(f, v) AS r, string_agg(txt, ',') AS su,
		array_agg(v) AS aa, moods(m) AS ms FROM s, tumble(ts, '10 s') GROUP BY window_start, window_end, k},
	hopping => q{SELECT window_start, window_end, k, count(*) AS n, sum(v) AS s, avg(n) AS a, stddev(n) AS sd,
		count(DISTINCT txt) AS cd FROM s, hop(ts, '5 s', '20 s') GROUP BY window_start, window_end, k},
	cumulating => q{SELECT window_end, m, count(*) AS n, sum(n) AS s, array_agg(DISTINCT k) AS ks
		FROM s, cumulate(ts, '5 s', '20 s') GROUP BY window_end, m},
	sessions => q{SELECT window_start, window_end, k, count(*) AS n, sum(v) AS s, avg(n) AS a
		FROM s, session(ts, '1 s') GROUP BY window_start, window_end, k},
	counting => q{SELECT k, count(*) AS n, sum(v) AS s, avg(n) AS a FROM s, count_window(7)
		GROUP BY window_start, window_end, k},
	keyed => q{SELECT m, txt, ROW(k, m)::pair AS p, ARRAY[m, 'sad'] AS ms, n AS nk, f = 0 AS z, count(*) AS c,
		sum(v) AS s, avg(n) AS a, stddev(f) AS sf, sum(n) AS sn FROM s WHERE v < 50 GROUP BY m, txt, 3, 4, 5, 6},
	sets => q{SELECT k, txt, count(*) AS n, avg(n) AS a, grouping(k, txt) AS g FROM s
		GROUP BY GROUPING SETS ((k), (txt), ())},
	one => q{SELECT count(*) AS n, max(v) AS m, stddev(n) AS sd, sum(v) AS s FROM s},
	noise => q{SELECT window_start, k, count(*) AS n FROM quiet, tumble(ts, '10 s') GROUP BY window_start, k},
	ended => q{SELECT window_start, k, count(*) AS n, avg(v) AS a FROM over, tumble(ts, '10 s') GROUP BY window_start, k},
	of_part => q{SELECT window_start, a % 3 AS g, count(*) AS n, sum(a) AS s FROM part1, tumble(ts, '10 s') GROUP BY 1, 2},
	on_hold => q{SELECT window_start, k, count(*) AS n FROM held, tumble(ts, '10 s') GROUP BY window_start, k},
	failing => q{SELECT k, count(*) AS n, sum(ten_by(length(txt))) AS s FROM held GROUP BY k},
	spaced => q{SELECT k, count(*) AS n, avg(v) AS a FROM kept GROUP BY k},
	spans => q{SELECT k, avg(ts - '2026-01-01'::timestamptz) AS a FROM kept GROUP BY k},
);
my %options = (
	sessions => "WITH (allowed_lateness = '3 s')",
	tumbling => "WITH (late_table = 'late_ones', fillfactor = 70)",
	spaced => "TABLESPACE elsewhere",
);
my %windowed = map { $_ => 1 } qw(tumbling ordered hopping cumulating sessions);

# The same over the twins.
sub batch
{
	my ($view) = @_;
	my $query = $views{$view};

	if ($view eq 'counting')
	{
		return q{SELECT k, count(*) AS n, sum(v) AS s, avg(n) AS a FROM (
			SELECT *, (row_number() OVER (PARTITION BY k ORDER BY id) - 1) / 7 AS w FROM t_s) s GROUP BY k, w};
	}
	$query =~ s/FROM s\b/$windowed{$view} ? 'FROM (SELECT * FROM t_s WHERE NOT late ORDER BY id) s' : 'FROM t_s s'/e;
	$query =~ s/FROM (quiet|over|part1|held|kept)\b/FROM t_$1 $1/;
	return $query;
}

sub same
{
	my ($node, $when, @but) = @_;

	for my $view (sort keys %views)
	{
		next if grep { $_ eq $view } @but;
		# without a sort the rows of a group come in the order of their id
		local $ENV{PGOPTIONS} = '-c enable_sort=off' if $view eq 'ordered';
		my $shown = $view eq 'counting' ? '(SELECT k, n, s, a FROM counting) c' : $view;
		weir_same($node, $shown, batch($view), "$when: $view equals the batch query");
	}
	return;
}

sub create
{
	my ($node, $space) = @_;

	mkdir $space or die $!;
	$node->start;
	$node->safe_psql('postgres', qq{CREATE TABLESPACE elsewhere LOCATION '$space'});
	$node->safe_psql(
		'postgres', q{
		CREATE EXTENSION pg_weir;
		CREATE ROLE keeper;
		CREATE TYPE mood AS ENUM ('sad', 'happy');
		ALTER TYPE mood ADD VALUE 'so so' BEFORE 'happy';
		CREATE TYPE pair AS (a int, b mood);
		CREATE FUNCTION append(mood[], mood) RETURNS mood[] LANGUAGE sql IMMUTABLE AS
			'SELECT array_append($1, $2)';
		CREATE AGGREGATE moods(mood) (SFUNC = append, STYPE = mood[], INITCOND = '{}');
		CREATE FUNCTION ten_by(int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT 10 / $1';
		CREATE TABLE s (k int, dropped int, txt text, v bigint, f float8, n numeric, m mood, ts timestamptz NOT NULL)
			USING stream WITH (event_time = ts, watermark_delay = '5 s', retention = '1 us');
		ALTER TABLE s DROP COLUMN dropped;
		CREATE TABLE held (k int, txt text, ts timestamptz NOT NULL)
			USING stream WITH (event_time = ts, watermark_delay = '5 s', fillfactor = 77);
		CREATE UNLOGGED TABLE quiet (k int, ts timestamp) USING stream WITH (event_time = ts, retention = '1 us');
		CREATE TABLE over (k int, v bigint, ts timestamptz) USING stream WITH (event_time = ts, retention = '1 us');
		CREATE TABLE kept (k int, v bigint, ts timestamptz) USING stream TABLESPACE elsewhere;
		CREATE TABLE parts (a int, ts timestamptz) PARTITION BY RANGE (a);
		CREATE TABLE part1 PARTITION OF parts FOR VALUES FROM (0) TO (100)
			USING stream WITH (event_time = ts, retention = '1 us');
		CREATE TABLE t_s (id serial, late bool, LIKE s);
		CREATE TABLE t_held (LIKE held); CREATE TABLE t_quiet (LIKE quiet); CREATE TABLE t_over (LIKE over);
		CREATE TABLE t_kept (LIKE kept); CREATE TABLE t_part1 (LIKE parts);
		GRANT SELECT, TRIGGER ON s TO keeper;
		GRANT CREATE, USAGE ON SCHEMA public TO keeper});
	for my $view (sort keys %views)
	{
		my $o = $options{$view} // '';
		$node->safe_psql('postgres', "CREATE MATERIALIZED VIEW $view USING continuous $o AS $views{$view}");
	}
	$node->safe_psql(
		'postgres', q{
		CREATE MATERIALIZED VIEW skipping USING continuous WITH (on_error = skip) AS
			SELECT k, sum(60 / (v - 30)) AS s FROM s GROUP BY k;
		CREATE MATERIALIZED VIEW stopped USING continuous AS SELECT count(*) AS n FROM kept WITH NO DATA;
		CREATE UNIQUE INDEX ON tumbling (window_start, k);
		ALTER MATERIALIZED VIEW hopping OWNER TO keeper});
	return;
}

# Events of 12 seconds, in one transaction with their twins.
sub ingest
{
	my ($node, $round, $late) = @_;
	my $base = $late ? '2025-12-30 00:00Z' : '2026-01-01 00:00Z';
	my $in_time = $late ? 'false' : 'true';

	$node->safe_psql('postgres', qq{
		BEGIN;
		CREATE TEMP TABLE e ON COMMIT DROP AS
			SELECT i, i % 4 AS k, 't' || i % 5 AS txt, i::bigint AS v, (i - 7) * 0.1::float8 AS f, i * 1.10 AS n,
				(enum_range(NULL::mood))[1 + i % 3] AS m, '$base'::timestamptz + (($round * 12 + (i * 7) % 13)
					+ (i % 10) * 0.1) * interval '1 s' AS ts FROM generate_series(1, 60) i ORDER BY i;
		INSERT INTO s SELECT k, txt, v, f, n, m, ts FROM e ORDER BY i;
		INSERT INTO t_s (late, k, txt, v, f, n, m, ts) SELECT NOT $in_time, k, txt, v, f, n, m, ts FROM e ORDER BY i;
		INSERT INTO held SELECT k, txt, ts FROM e WHERE $in_time AND i < 4;
		INSERT INTO t_held SELECT k, txt, ts FROM e WHERE $in_time AND i < 4;
		INSERT INTO quiet SELECT i, '2026-01-01 00:00'::timestamp + ($round * 100 + i) * interval '1 s' FROM e WHERE $in_time AND i < 4;
		INSERT INTO t_quiet SELECT i, '2026-01-01 00:00'::timestamp + ($round * 100 + i) * interval '1 s' FROM e WHERE $in_time AND i < 4;
		INSERT INTO kept SELECT k, v, ts FROM e;
		INSERT INTO t_kept SELECT k, v, ts FROM e;
		INSERT INTO parts SELECT i, '2026-01-01 00:00Z'::timestamptz + ($round * 100 + i) * interval '1 s' FROM e WHERE $in_time;
		INSERT INTO t_part1 SELECT i, '2026-01-01 00:00Z'::timestamptz + ($round * 100 + i) * interval '1 s' FROM e WHERE $in_time;
		COMMIT});
	return;
}

# What must be the same in both servers: all rows, which are final, counters, W;
# not of these views ("errors": nor their errors).
sub facts
{
	my ($node, @but) = @_;
	my @all = grep { my $v = $_; !grep { $_ eq $v } @but } (sort(keys %views), 'skipping');
	my $list = join(', ', map { "'$_'::regclass" } @all);
	my $errors = (grep { $_ eq 'errors' } @but) ? '' : "SELECT * FROM weir.errors WHERE view IN ($list) ORDER BY id;";
	my $sql = join('', map
		  { "SELECT '$_', count(*), md5(string_agg(r::text, E'\\n' ORDER BY r::text COLLATE \"C\")) FROM $_ r;\n" }
		  (@all, 'late_ones', 'held', 'kept'));

	$sql .= qq{
		SELECT window_start, k, weir.is_final('tumbling', window_end) FROM tumbling ORDER BY 1, 2;
		SELECT view, state, error, events_in, late, late_partial, watermark FROM weir.views
			WHERE view IN ($list) ORDER BY view::text;
		$errors
		SELECT stream, watermark FROM weir.streams ORDER BY stream::text;
		SELECT relname, reloptions FROM pg_class
			WHERE relam IN (SELECT oid FROM pg_am WHERE amname IN ('stream', 'continuous')) AND relkind <> 't' ORDER BY relname;
	};
	return $node->safe_psql('postgres', $sql);
}

sub wait_all
{
	my ($node) = @_;
	$node->safe_psql('postgres', q{SELECT weir.wait_for(view, '120 s') FROM weir.views WHERE state IN ('running', 'building')});
	return;
}

sub upgrade
{
	my ($name, @mode) = @_;
	my $old = make_node("old_$name", $old_path);
	my $new = make_node("new_$name", $new_path);
	# where an aggregate's state is another type in the new version
	my @unreadable = $old_major < 17 && $new_major >= 17 ? ('spans') : ();

	create($old, $old->basedir . '/space');
	ingest($old, $_, 0) for (0 .. 3);
	$old->safe_psql('postgres', q{
		INSERT INTO over SELECT i, i, '2026-01-01 00:00Z'::timestamptz + i * interval '4 s' FROM generate_series(1, 10) i;
		INSERT INTO t_over SELECT i, i, '2026-01-01 00:00Z'::timestamptz + i * interval '4 s' FROM generate_series(1, 10) i});
	wait_all($old);
	$old->safe_psql('postgres', 'SELECT weir.checkpoint()') for (1, 2);
	is($old->safe_psql('postgres', 'SELECT count(*) FROM s'), '0', "$name: the log is empty");
	$old->safe_psql('postgres', q{SELECT weir.pause('on_hold')});

	# not in a checkpoint before the stop, some of it late; a transaction that was
	# prepared; one that was rolled back; a view that fails; a stream that ends
	ingest($old, 4, 0);
	ingest($old, 1, 1);
	$old->safe_psql('postgres', q{
		BEGIN;
		INSERT INTO s VALUES (1, 'p', 1001, 1, 1, 'sad', '2026-01-01 00:01:00Z');
		INSERT INTO t_s (late, k, txt, v, f, n, m, ts) VALUES (false, 1, 'p', 1001, 1, 1, 'sad', '2026-01-01 00:01:00Z');
		PREPARE TRANSACTION 'p'});
	$old->stop;
	$old->start;
	$old->safe_psql('postgres', q{
		COMMIT PREPARED 'p';
		BEGIN; INSERT INTO s VALUES (1, 'r', 1, 1, 1, 'sad', '2026-01-01 00:01:00Z'); ROLLBACK;
		INSERT INTO held VALUES (1, '', '2026-01-01 00:01:00Z');
		INSERT INTO t_held VALUES (1, '', '2026-01-01 00:01:00Z');
		SELECT weir.advance_watermark('over', 'infinity')});
	ok( $old->poll_query_until('postgres', q{SELECT state = 'failed' FROM weir.views WHERE view = 'failing'::regclass}),
		"$name: a view has failed");
	wait_all($old);
	same($old, "$name, old", 'failing', 'on_hold');
	my $before = facts($old, @unreadable);
	my $positions = q{SELECT max(position) FROM weir.view_position};
	my $position = $old->safe_psql('postgres', $positions);
	my $xid = $old->safe_psql('postgres', 'SELECT pg_current_xact_id()');
	$old->stop;

	# what starts says so at this level
	$_->append_conf('postgresql.conf', 'log_min_messages = debug1') for ($old, $new);
	my @command = (
		'pg_upgrade', '--no-sync', '--retain', '-d', $old->data_dir, '-D', $new->data_dir,
		'-b', "$old_path/bin", '-B', "$new_path/bin", '-s', $new->host, '-p', $old->port, '-P', $new->port, @mode);
	chdir $new->basedir or die $!;
	command_ok([ @command, '--check' ], "$name: pg_upgrade --check");
	command_ok(\@command, "$name: pg_upgrade");
	chdir $top or die $!;
	my @logs = glob($new->data_dir . '/pg_upgrade_output.d/*/log/*server*.log');
	my $log = join('', map { slurp_file($_) } @logs);
	like($log, qr/DEBUG:/, "$name: it has left a log");
	unlike($log, qr/pg_weir (launcher|worker)/, "$name: none of our processes has started");
	$_->append_conf('postgresql.conf', 'log_min_messages = log') for ($old, $new);

	# numbers and xids stand in the log: those of the new server are beyond them
	$new->start;
	cmp_ok($new->safe_psql('postgres', 'SELECT pg_current_xact_id()'), '>', $xid, "$name: xids go on");
	cmp_ok($new->safe_psql('postgres', q{SELECT pg_current_wal_insert_lsn() - '0/0'}),
		'>', $position, "$name: WAL positions go on");
	wait_all($new);
	is(facts($new, @unreadable), $before, "$name: everything is as in the old server");
	same($new, "$name, new", 'failing', 'on_hold', @unreadable);
	if (@unreadable)
	{
		is( $new->safe_psql('postgres', q{SELECT state, error FROM weir.views WHERE view = 'spans'::regclass}),
			'failed|checkpoint of continuous view "spans" cannot be read',
			"$name: a state that has no like in the new version");
		$new->safe_psql('postgres', 'REFRESH MATERIALIZED VIEW spans');
	}

	# open windows go on, a checkpoint of the new server stands beside that of the old
	$new->safe_psql('postgres', q{
		SELECT weir.resume('on_hold');
		CREATE OR REPLACE FUNCTION ten_by(int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT 10 / nullif($1, 0)'});
	$new->safe_psql('postgres', q{SELECT weir.resume('failing')});
	ingest($new, 5, 0);
	wait_all($new);
	same($new, "$name, events of the new server");
	$new->safe_psql('postgres', 'SELECT weir.checkpoint()');
	ingest($new, 6, 0);
	ingest($new, 2, 1);
	wait_all($new);
	$new->stop('immediate');
	$new->start;
	wait_all($new);
	same($new, "$name, after a crash", 'noise');
	my ($rc, $out, $err) = $new->psql('postgres', q{INSERT INTO over VALUES (1, 1, '2026-01-01')});
	like($err, qr/has ended/, "$name: a stream that has ended takes no event");
	($rc, $out, $err) = $new->psql('postgres', 'REFRESH MATERIALIZED VIEW keyed');
	like($err, qr/does not hold any more/, "$name: a view with events that are gone cannot be rebuilt");
	# of one with windows those after them can, once the others are final
	($rc, $out, $err) = $new->psql('postgres', 'REFRESH MATERIALIZED VIEW tumbling');
	like($err, qr/"tumbling" yet.*they are not all final/s, "$name: nor one with windows of which some that lack events are open");
	$new->safe_psql('postgres', 'REFRESH MATERIALIZED VIEW stopped; REFRESH MATERIALIZED VIEW spaced');
	wait_all($new);
	is( $new->safe_psql('postgres', 'SELECT n FROM stopped'),
		$new->safe_psql('postgres', 'SELECT count(*) FROM t_kept'), "$name: a stopped view is built");
	same($new, "$name, in the end", 'noise');
	$new->safe_psql('postgres', 'SELECT weir.checkpoint()');
	is($new->safe_psql('postgres', 'SELECT count(*) FROM late_ones'),
		$new->safe_psql('postgres', 'SELECT count(*) FROM t_s WHERE late'), "$name: late events are in the late table");
	$new->safe_psql('postgres', 'DROP TABLE s, held, quiet, over, kept, parts CASCADE; DROP EXTENSION pg_weir');
	weir_log_is_clean($new);
	$new->stop;

	# whoever goes back finds it as it was
	if ($name eq 'copy')
	{
		$old->start;
		wait_all($old);
		is(facts($old, @unreadable), $before, "$name: the old server is as it was");
		$old->stop;
	}
	weir_log_is_clean($old);
	return;
}

# The new version's pg_dump of the old server: what it carries (doc/operations.md)
# is as it was, and goes on.
sub dump_and_restore
{
	my $old = make_node('old_dump', $old_path);
	my $new = make_node('new_dump', $new_path);
	my @unreadable = $old_major < 17 && $new_major >= 17 ? ('spans') : ();
	# what a paused view has not counted it has in the copy
	my @but = ('on_hold', 'errors', @unreadable);
	my $file = $new->basedir . '/dump.sql';

	create($old, $old->basedir . '/space');
	ingest($old, $_, 0) for (0 .. 3);
	$old->safe_psql('postgres', q{
		INSERT INTO over SELECT i, i, '2026-01-01 00:00Z'::timestamptz + i * interval '4 s' FROM generate_series(1, 10) i;
		INSERT INTO t_over SELECT i, i, '2026-01-01 00:00Z'::timestamptz + i * interval '4 s' FROM generate_series(1, 10) i;
		SELECT weir.advance_watermark('over', 'infinity')});
	wait_all($old);
	$old->safe_psql('postgres', 'SELECT weir.checkpoint()') for (1, 2);
	is($old->safe_psql('postgres', 'SELECT count(*) FROM s'), '0', 'dump: the log is empty');
	$old->safe_psql('postgres', q{SELECT weir.pause('on_hold')});
	# not in a checkpoint, some of it late
	ingest($old, 4, 0);
	ingest($old, 1, 1);
	wait_all($old);

	$new->start;
	$new->safe_psql('postgres', 'CREATE ROLE keeper');
	command_ok(
		[ "$new_path/bin/pg_dump", '--no-tablespaces', '-f', $file, '-d', $old->connstr('postgres') ],
		"dump: pg_dump $new_major of $old_major");
	my ($out, $err) = run_command([ "$new_path/bin/psql", '-Xq', '-f', $file, '-d', $new->connstr('postgres') ]);
	# late events are rows of their table once there has been a checkpoint; the dump
	# has them anyhow
	$old->safe_psql('postgres', 'SELECT weir.checkpoint()');
	my $before = facts($old, @but);
	my @errors = $err =~ /ERROR:  (.*)/g;
	is(scalar @errors, scalar @unreadable, 'dump: restored') or diag($err);
	like($_, qr/^dumped state of continuous view "spans" cannot be taken/, 'dump: what another major has written') for @errors;
	$new->safe_psql('postgres', "REFRESH MATERIALIZED VIEW $_ WITH NO DATA; REFRESH MATERIALIZED VIEW $_") for @unreadable;
	wait_all($new);
	is(facts($new, @but), $before, 'dump: everything is as in the old server');
	same($new, 'dump, new', 'on_hold');
	is($new->safe_psql('postgres', q{SELECT state FROM weir.views WHERE view = 'on_hold'::regclass}),
		'paused', 'dump: one is paused');
	$new->safe_psql('postgres', q{SELECT weir.resume('on_hold')});
	ingest($new, 5, 0);
	ingest($new, 2, 1);
	wait_all($new);
	same($new, 'dump, events of the new server');
	$new->stop('immediate');
	$new->start;
	wait_all($new);
	same($new, 'dump, after a crash', 'noise');
	weir_log_is_clean($_) for $old, $new;
	$_->stop for $old, $new;
	return;
}

upgrade('copy', '--copy');
upgrade('link', '--link', '--jobs=2');
upgrade('swap', '--swap') if $new_major >= 18;
dump_and_restore();
done_testing();
