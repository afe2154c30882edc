# Dumps carry what views have counted: final rows and groups whose events are
# gone from the log, watermarks, what is late; in each format, and afterwards
# source and copy take the same events and stay the same.

use strict;
use warnings;

use lib 'test/tap';
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use WeirTest;

my $node = weir_node('dump_state');
my $dir = PostgreSQL::Test::Utils::tempdir;
my $connstr = sub { return $node->connstr($_[0]) };

# the checkpoints are those the test asks for: what follows them is in memory
$node->safe_psql('postgres', q{ALTER SYSTEM SET weir.checkpoint_interval = '1h'});
$node->append_conf('postgresql.conf', "max_worker_processes = 40\nweir.max_workers = 1");
$node->restart;
$node->backup('base');
my $standby = PostgreSQL::Test::Cluster->new('dump_state_standby');
$standby->init_from_backup($node, 'base', has_streaming => 1);
$standby->start;

$node->safe_psql(
	'postgres', q{
	CREATE ROLE keeper;
	CREATE TYPE mood AS ENUM ('sad', 'happy');
	ALTER TYPE mood ADD VALUE 'so so' BEFORE 'happy';
	CREATE TYPE pair AS (a int, b mood);
	CREATE DOMAIN small AS int CHECK (VALUE < 1000);
	CREATE FUNCTION append(mood[], mood) RETURNS mood[] LANGUAGE sql IMMUTABLE AS
		'SELECT array_append($1, $2)';
	CREATE AGGREGATE moods(mood) (SFUNC = append, STYPE = mood[], INITCOND = '{}');
	CREATE TABLE s (k int, dropped int, txt text, v bigint, f float8, n numeric, m mood, ts timestamptz NOT NULL)
		USING stream WITH (event_time = ts, watermark_delay = '5 s', retention = '1 us');
	ALTER TABLE s DROP COLUMN dropped;
	CREATE TABLE held (k int, txt text, ts timestamptz NOT NULL)
		USING stream WITH (event_time = ts, watermark_delay = '5 s');
	CREATE UNLOGGED TABLE unlogged (k int, ts timestamp)
		USING stream WITH (event_time = ts, retention = '1 us');
	CREATE TABLE over (k int, ts timestamptz)
		USING stream WITH (event_time = ts, retention = '1 us');

	SET TimeZone = 'Asia/Kolkata';
	SET extra_float_digits = 0;
	SET DateStyle = 'German';
	SET bytea_output = 'escape';
	CREATE MATERIALIZED VIEW tumbling USING continuous WITH (retention = '365 days') AS
		SELECT window_start, window_end, k, count(*) AS n, sum(v) AS s, avg(v) AS a, sum(n) AS sn,
			avg(k) AS ak, stddev(n) AS sdn, variance(v) AS vv, min(txt), max(txt), sum(f) AS sf, avg(f) AS af,
			regr_slope(f, v) AS r, string_agg(txt, ',' ORDER BY v DESC) AS sa, array_agg(v) AS aa,
			count(DISTINCT txt) AS cd, percentile_cont(0.5) WITHIN GROUP (ORDER BY v) AS p,
			mode() WITHIN GROUP (ORDER BY m) AS mm, weir.first(m, ts) AS fm, weir.last(txt, ts) AS lt,
			weir.first(v, ts) FILTER (WHERE v > 1000) AS none, bool_or(v > 30) AS b,
			jsonb_agg(m) AS j, moods(m) AS ms, max(f) FILTER (WHERE k = 1) AS mf, bit_and(v) AS ba
		FROM s, tumble(ts, '10 s') GROUP BY window_start, window_end, k;
	RESET ALL;
	CREATE UNIQUE INDEX ON tumbling (window_start, k);
	CREATE MATERIALIZED VIEW hopping USING continuous AS
		SELECT window_start, window_end, k, count(*) AS n, sum(v) AS s, avg(n) AS a, stddev(n) AS sd,
			string_agg(txt, ',') AS sa, count(DISTINCT txt) AS cd, weir.last(v, ts) AS l, moods(m) AS ms
		FROM s, hop(ts, '5 s', '20 s') GROUP BY window_start, window_end, k;
	CREATE MATERIALIZED VIEW cumulating USING continuous AS
		SELECT window_end, m, count(*) AS n, sum(v) AS s, array_agg(DISTINCT k) AS ks
		FROM s, cumulate(ts, '5 s', '20 s') GROUP BY window_end, m;
	CREATE MATERIALIZED VIEW sessions USING continuous WITH (allowed_lateness = '3 s') AS
		SELECT window_start, window_end, k, count(*) AS n, sum(v) AS s, array_agg(txt) AS ts
		FROM s, session(ts, '1 s') GROUP BY window_start, window_end, k;
	CREATE MATERIALIZED VIEW counting USING continuous AS
		SELECT window_start, window_end, k, count(*) AS n, sum(v) AS s
		FROM s, count_window(7) GROUP BY window_start, window_end, k;
	CREATE MATERIALIZED VIEW sliding USING continuous AS
		SELECT window_start, window_end, k, count(*) AS n, sum(v) AS s
		FROM s, count_window(6, 3) GROUP BY window_start, window_end, k;
	CREATE MATERIALIZED VIEW arriving USING continuous AS
		SELECT window_start, k, count(*) AS n FROM s, tumble(now(), '100 days') GROUP BY window_start, k;
	CREATE MATERIALIZED VIEW days USING continuous AS
		SELECT date_trunc('day', ts, 'Europe/Berlin') AS day, count(*) AS n FROM s GROUP BY 1;
	CREATE MATERIALIZED VIEW keyed USING continuous AS
		SELECT m, ROW(k, m)::pair AS p, ARRAY[m, 'sad'] AS ms, k::small AS d, nullif(txt, 't1') AS t,
			f = 0 AS z, -f AS minus, count(*) AS n, sum(v) AS s, avg(n) AS a
		FROM s WHERE v < 50 GROUP BY m, 2, 3, 4, 5, 6, 7;
	CREATE MATERIALIZED VIEW sets USING continuous AS
		SELECT k, txt, count(*) AS n, grouping(k, txt) AS g FROM s GROUP BY GROUPING SETS ((k), (txt), ());
	CREATE MATERIALIZED VIEW one USING continuous AS SELECT count(*) AS n, max(v) AS m, stddev(f) AS sd FROM s;
	CREATE MATERIALIZED VIEW "Lateness" USING continuous
		WITH (allowed_lateness = '3 s', late_table = 'late_ones', emit = final) AS
		SELECT window_start, k, count(*) AS n FROM s, tumble(ts, '10 s') GROUP BY window_start, k HAVING count(*) > 1;
	CREATE MATERIALIZED VIEW skipping USING continuous WITH (on_error = skip) AS
		SELECT k, count(*) AS n, sum(60 / (v - 30)) AS s FROM s GROUP BY k;
	CREATE MATERIALIZED VIEW on_hold USING continuous AS
		SELECT window_start, k, count(*) AS n FROM held, tumble(ts, '10 s') GROUP BY window_start, k;
	CREATE MATERIALIZED VIEW failing USING continuous AS
		SELECT k, count(*) AS n, sum(10 / length(txt)) AS s FROM held GROUP BY k;
	CREATE MATERIALIZED VIEW of_unlogged USING continuous AS
		SELECT window_start, k, count(*) AS n FROM unlogged, tumble(ts, '10 s') GROUP BY window_start, k;
	CREATE MATERIALIZED VIEW of_over USING continuous AS
		SELECT window_start, k, count(*) AS n FROM over, tumble(ts, '10 s') GROUP BY window_start, k;
	CREATE MATERIALIZED VIEW stopped USING continuous AS SELECT count(*) AS n FROM s WITH NO DATA;
	GRANT SELECT, TRIGGER ON s TO keeper;
	GRANT CREATE, USAGE ON SCHEMA public TO keeper;
	ALTER MATERIALIZED VIEW hopping OWNER TO keeper;
});

our @views = qw(tumbling hopping cumulating sessions counting sliding arriving days keyed sets one
  "Lateness" skipping on_hold failing of_unlogged of_over);

# Events of 12 seconds, in one transaction; earlier rounds are late.
sub ingest
{
	my ($round, @dbs) = @_;

	for my $db (@dbs)
	{
		$node->safe_psql($db, qq{
			INSERT INTO s SELECT i % 4, 't' || i % 5, i, (i - 7) * 0.1, i * 1.10, (enum_range(NULL::mood))[1 + i % 3],
				'2026-01-01 00:00Z'::timestamptz + ($round * 12 + (i * 7) % 13) * interval '1 s'
					+ (i % 10) * interval '0.1 s' FROM generate_series(1, 60) i;
			INSERT INTO held SELECT i, 'x', '2026-01-01 00:00Z'::timestamptz + ($round * 12 + i) * interval '1 s'
				FROM generate_series(1, 3) i;
			INSERT INTO unlogged SELECT i, '2026-01-01 00:00'::timestamp + ($round * 100 + i) * interval '1 s'
				FROM generate_series(1, 3) i});
	}
}

# What must be the same: rows, which are final, counters, W.
my $late = 'late_ones';

sub facts
{
	my ($db) = @_;
	my $sql = "SET search_path = public;\n";

	$sql .= "SELECT '$_', count(*), md5(string_agg(r::text, E'\\n' ORDER BY r::text COLLATE \"C\")) FROM $_ r;\n"
	  for @views, $late;
	$sql .= "SELECT '$_', window_start, weir.is_final('$_', window_start + interval '10 s') FROM $_ ORDER BY 2, k;\n"
	  for qw(tumbling of_over);
	$sql .= q{SELECT view, replace(state, 'failed', 'lost'), events_in, late, late_partial, watermark FROM weir.views
		WHERE view = ANY ($1) ORDER BY view::text;
		SELECT stream, watermark FROM weir.streams WHERE stream <> 'unlogged'::regclass ORDER BY stream::text;};
	my $list = join(', ', map { "'$_'::regclass" } grep { $_ ne 'arriving' } @views);
	$sql =~ s/\(\$1\)/(ARRAY[$list])/;
	return $node->safe_psql($db, $sql);
}

sub wait_in
{
	my ($db) = @_;

	$node->safe_psql($db, q{SELECT weir.wait_for(timeout => '120 s')});
	$node->safe_psql($db, 'SELECT weir.checkpoint()');
	return;
}

ingest($_, 'postgres') for (0 .. 3);
ingest(1, 'postgres');
$node->safe_psql('postgres', q{
	INSERT INTO over SELECT i, '2026-01-01 00:00Z'::timestamptz + i * interval '4 s' FROM generate_series(1, 10) i});
wait_in('postgres') for (1, 2);
is($node->safe_psql('postgres', 'SELECT count(*) FROM s'), '0', 'the log is empty');
$node->safe_psql('postgres', q{SELECT weir.pause('on_hold')});

# not in the checkpoint, some of it late; W that no event has raised
ingest($_, 'postgres') for (4, 5, 2);
$node->safe_psql('postgres', q{
	SELECT weir.advance_watermark('s', '2026-01-01 00:01:11Z');
	SELECT weir.advance_watermark('over', 'infinity')});
$node->safe_psql('postgres', q{INSERT INTO held VALUES (1, '', '2026-01-01 00:02:00Z')});
$node->safe_psql('postgres', q{SELECT weir.wait_for(v) FROM unnest('{tumbling,of_over}'::regclass[]) v});
ok( $node->poll_query_until('postgres', q{SELECT state = 'failed' FROM weir.views WHERE view = 'failing'::regclass}),
	'a view has failed');

# one prepared transaction has committed, another has not
$node->safe_psql('postgres', q{
	BEGIN; INSERT INTO s VALUES (1, 'p1', 1, 1, 1, 'sad', '2026-01-01 00:01:13Z'); PREPARE TRANSACTION 'p1';
	COMMIT PREPARED 'p1';
	BEGIN; INSERT INTO s VALUES (1, 'p2', 1, 1, 1, 'sad', '2026-01-01 00:01:13Z'); PREPARE TRANSACTION 'p2'});

# what a dump does not survive, the next does not notice
SKIP:
{
	skip 'no debug points in this build', 4 if $node->psql('postgres', 'SHOW weir.debug_points') != 0;
	my $parts = q{SELECT count(*) FILTER (WHERE part = 'view') > 15, count(*) FILTER (WHERE part = 'group') > 50 FROM weir.view_dump};

	is($node->safe_psql('postgres', "SET weir.debug_points = 'batch-folded=error'; $parts"), 't|f',
		'what raises is left out');
	is($node->safe_psql('postgres', $parts), 't|t', 'and there the next time');
	isnt($node->psql('postgres', "SET weir.debug_points = 'batch-folded=fatal'; $parts"), 0, 'a dump breaks off');
	is($node->safe_psql('postgres', $parts), 't|t', 'another goes through');
}

# the dump, while a transaction that it must not see is open
my $writer = $node->background_psql('postgres', on_error_stop => 1);
$writer->query_safe(q{BEGIN; INSERT INTO s VALUES (9, 'open', 9, 9, 9, 'sad', '2026-01-01 00:01:30Z')});

$node->wait_for_catchup($standby, 'replay', $node->lsn('insert'));

my @dumps = (
	[ 'plain', [ '-f', "$dir/plain.sql" ], [ 'psql', '-X', '-q', '-v', 'ON_ERROR_STOP=1', '-f', "$dir/plain.sql" ] ],
	[ 'inserts', [ '--inserts', '-f', "$dir/inserts.sql" ], [ 'psql', '-X', '-q', '-v', 'ON_ERROR_STOP=1', '-f', "$dir/inserts.sql" ] ],
	[ 'custom', [ '-Fc', '-f', "$dir/custom" ], [ 'pg_restore', '-j2', '--exit-on-error', "$dir/custom" ] ],
	[ 'directory', [ '-Fd', '-j3', '-f', "$dir/directory" ], [ 'pg_restore', '-j2', '--exit-on-error', "$dir/directory" ] ],
	[ 'single', undef, [ 'pg_restore', '--single-transaction', '--exit-on-error', "$dir/custom" ] ],
	[ 'sections', undef, map { [ 'pg_restore', "--section=$_", '--exit-on-error', "$dir/custom" ] } qw(pre-data data post-data) ],
);

for my $d (@dumps)
{
	my ($name, $options) = @$d;

	$node->command_ok([ 'pg_dump', @$options, '-d', $connstr->('postgres') ], "$name: pg_dump")
	  if defined $options;
}
$node->command_ok([ 'pg_dump', '-Fc', '-f', "$dir/standby", '-d', $standby->connstr('postgres') ], 'pg_dump of a standby');
$standby->stop;
$node->safe_psql('postgres', q{ROLLBACK PREPARED 'p2'});
$writer->query_safe('COMMIT');
$writer->quit;
$node->safe_psql('postgres', q{SELECT weir.wait_for('tumbling')});

for my $d (@dumps)
{
	my ($name, $options, @restore) = @$d;

	$node->safe_psql('postgres', "CREATE DATABASE r_$name");
	$node->command_ok([ @$_, '-d', $connstr->("r_$name") ], "$name: $_->[0] $_->[1]") for @restore;
	# the event that was open
	$node->safe_psql("r_$name", q{INSERT INTO s VALUES (9, 'open', 9, 9, 9, 'sad', '2026-01-01 00:01:30Z')});
}
$node->safe_psql('postgres', q{SELECT weir.resume('on_hold')});

# what a restore says of two views, and then makes it go on as in the source
for my $d (@dumps)
{
	my $db = "r_$d->[0]";

	is($node->safe_psql($db, q{SELECT state FROM weir.views WHERE view = 'on_hold'::regclass}),
		'paused', "$db: a paused view is paused");
	is($node->safe_psql($db, q{SELECT state, error FROM weir.views WHERE view = 'failing'::regclass}),
		'lost|it had failed when it was dumped: division by zero', "$db: a failed view is lost");
	$node->safe_psql($db, q{SELECT weir.resume('on_hold')});
	wait_in($db);
}
wait_in('postgres');
my $expected = facts('postgres');

for my $d (@dumps)
{
	my $db = "r_$d->[0]";

	is(facts($db), $expected, "$db: everything is as in the source");
}

# the same events for all, though not at the same time
$late = '(SELECT k, txt, v, f, n, m, ts, late_view, window_end, watermark FROM late_ones)';
my @all = ('postgres', map { "r_$_->[0]" } @dumps);
ingest($_, @all) for (6, 3, 8, 7);
wait_in($_) for @all;
$expected = facts('postgres');
is(facts($_), $expected, "$_: everything stays as in the source") for grep { $_ ne 'postgres' } @all;
for my $db (@all)
{
	my ($rc, $out, $err) = $node->psql($db, q{INSERT INTO over VALUES (1, '2026-01-01')});

	like($err, qr/has ended/, "$db: a stream that has ended takes no event");
	($rc, $out, $err) = $node->psql($db, q{REFRESH MATERIALIZED VIEW tumbling});
	like($err, qr/does not hold (?:any more|all events)/, "$db: a view with events that are gone cannot be rebuilt");
}

# a standby has nothing of the unlogged stream, and the rest as in the source then
{
	$node->safe_psql('postgres', 'CREATE DATABASE r_standby');
	$node->command_fails_like([ 'pg_restore', '-j2', '-d', $connstr->('r_standby'), "$dir/standby" ],
		qr/"of_unlogged" cannot be taken\nDETAIL:  It could not be dumped: its stream is not logged/,
		'restore of a dump of a standby');
	$node->safe_psql('r_standby', q{
		SELECT weir.resume('on_hold');
		INSERT INTO s VALUES (9, 'open', 9, 9, 9, 'sad', '2026-01-01 00:01:30Z')});
	ingest($_, 'r_standby') for (6, 3, 8, 7);
	wait_in('r_standby');
	local @views = grep { !/unlogged/ } @views;
	is(facts('r_standby'), facts('postgres'), 'it is as the source');
}

# a dump of a copy is as good as the first
$node->safe_psql('postgres', 'CREATE DATABASE again');
$node->command_ok([ 'pg_dump', '-Fc', '-f', "$dir/again", '-d', $connstr->('r_plain') ], 'dump of a copy');
$node->command_ok([ 'pg_restore', '--exit-on-error', '-d', $connstr->('again'), "$dir/again" ], 'its restore');
wait_in('again');
is(facts('again'), facts('postgres'), 'and so is the copy of a copy');

# a crash empties the stream that is not logged; a failed view is where its last
# checkpoint was
@views = grep { !/failing|unlogged/ } @views;
weir_kill9($node);
weir_start($node);
$node->safe_psql($_, q{SELECT weir.wait_for(timeout => '120 s')}) for ('postgres', 'again');
is(facts('again'), facts('postgres'), 'and after a crash');

weir_log_is_clean($node);
$node->stop;
done_testing();
