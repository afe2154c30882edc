# What each kind of death does (src/README.md): the view is exact after all of
# them, live and final rows alike, with checkpoints before and after.
use strict;
use warnings;

use lib 'test/tap';

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use WeirTest;

my $node = PostgreSQL::Test::Cluster->new('recovery');
$node->init;
$node->append_conf('postgresql.conf', <<"CONF");
shared_preload_libraries = 'pg_weir'
restart_after_crash = on
fsync = off
CONF
$node->start;
$node->safe_psql('postgres', <<'SQL');
CREATE EXTENSION pg_weir;
CREATE TABLE s (k int, x numeric, t text, ts timestamptz) USING stream
  WITH (event_time = ts, watermark_delay = '10 seconds');
CREATE MATERIALIZED VIEW live USING continuous AS
  SELECT k, count(*) AS n, sum(x) AS total, stddev(x) AS dev,
         string_agg(t, ',' ORDER BY t) AS texts, max(t) AS last
  FROM s GROUP BY k;
CREATE MATERIALIZED VIEW win USING continuous AS
  SELECT window_start, window_end, k, count(*) AS n, sum(x) AS total
  FROM s, tumble(ts, '1 minute') GROUP BY window_start, window_end, k;
CREATE INDEX ON win (window_start);
SQL
my %batch = (
	live => "SELECT k, count(*), sum(x), stddev(x),"
	  . " string_agg(t, ',' ORDER BY t), max(t) FROM s GROUP BY k",
	win => 'SELECT window_start, window_end, k, count(*), sum(x)'
	  . " FROM s, tumble(ts, '1 minute')"
	  . ' GROUP BY window_start, window_end, k');

my $minute = 0;

sub events
{
	$node->safe_psql('postgres',
		"INSERT INTO s SELECT i % 7, i * 0.01, 't' || i % 13,"
		  . " timestamptz '2026-01-01 00:00Z' + $minute * interval '1 minute'"
		  . " + i * interval '0.1 second' FROM generate_series(1, 599) i");
	$minute++;
}

sub exact
{
	my ($what) = @_;
	is(weir_patiently($node, "SELECT weir.wait_for(NULL, '120 s')"), 't', "$what: consumed");
	for my $view (sort keys %batch)
	{
		is( weir_patiently($node, "SELECT (SELECT count(*) FROM (TABLE $view EXCEPT ALL"
				  . " ($batch{$view})) x) + (SELECT count(*) FROM"
				  . " (($batch{$view}) EXCEPT ALL TABLE $view) x)"),
			'0', "$what: $view is exact");
	}
}

sub worker
{
	return weir_patiently($node, 'SELECT pid FROM weir.workers ORDER BY pid LIMIT 1');
}

events() for 1 .. 3;
exact('at first');

my @deaths = (
	[ 'worker terminated' => sub {
			my $pid = worker();
			weir_patiently($node, "SELECT pg_terminate_backend($pid)");
			$node->poll_query_until('postgres',
				"SELECT count(*) > 0 AND bool_and(pid <> $pid) FROM weir.workers");
		} ],
	[ 'worker cancelled' => sub {
			weir_patiently($node, 'SELECT pg_cancel_backend(' . worker() . ')');
		} ],
	[ 'worker killed'   => sub { kill('KILL', worker()) } ],
	[ 'fast restart'    => sub { $node->restart } ],
	[ 'immediate stop'  => sub { $node->stop('immediate'); $node->start } ],
	[ 'postmaster killed' => sub { weir_kill9($node); weir_start($node) } ]);
for my $checkpointed (0, 1)
{
	for my $death (@deaths)
	{
		my ($name, $code) = @$death;
		events();
		if ($checkpointed)
		{
			exact("before $name");
			weir_patiently($node, 'SELECT weir.checkpoint()');
		}
		$code->();
		exact($name . ($checkpointed ? ' after a checkpoint' : ''));
		events();
		exact("$name, and on");
	}
}
cmp_ok(weir_patiently($node, 'SELECT count(*) FROM ONLY win'), '>', 0, 'rows');
cmp_ok(
	weir_patiently($node, "SELECT final_rows FROM weir.views WHERE view = 'win'::regclass"),
	'>', 7 * 10, 'windows became final');
is(weir_patiently($node, "SELECT sum(late) FROM weir.views"), '0', 'nothing was late');

# State and position survive a worker that ends by FATAL, or meets an ERROR, as
# one pair, and its successor goes on from them.  A function in the view counts
# what is folded, in a sequence, which no abort takes back: what was published is
# not folded again.
$node->safe_psql('postgres', <<'SQL');
ALTER SYSTEM SET weir.checkpoint_interval = '1h';
SELECT pg_reload_conf();
CREATE SEQUENCE folds;
CREATE FUNCTION counting(int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS
  $$ BEGIN PERFORM nextval('public.folds'); RETURN $1; END $$;
CREATE TABLE c (k int) USING stream;
CREATE MATERIALIZED VIEW counted USING continuous AS
  SELECT count(*) AS n, sum(counting(k)) AS total FROM c;
SELECT weir.wait_for('counted', '120 s');
SELECT weir.checkpoint();
SQL
my $inserted = 1000;
my $on_disk = q{SELECT coalesce(max(position), 0) FROM weir.view_position
	WHERE view = 'counted'::regclass};
my $position = $node->safe_psql('postgres', $on_disk);
$node->safe_psql('postgres', <<'SQL');
INSERT INTO c SELECT i FROM generate_series(1, 1000) i;
SELECT weir.wait_for('counted', '120 s');
SQL

sub folds { return $node->safe_psql('postgres', 'SELECT last_value FROM folds') }

sub rows_until
{
	my ($happened) = @_;
	for (1 .. 600)
	{
		$node->safe_psql('postgres', 'INSERT INTO c VALUES (1)');
		$inserted++;
		return if $happened->();
		select(undef, undef, undef, 0.05);
	}
	die 'it does not happen';
}

sub debug_points
{
	my ($value) = @_;
	$node->safe_psql('postgres', "ALTER SYSTEM SET weir.debug_points = '$value'");
	$node->safe_psql('postgres', 'SELECT pg_reload_conf()');
}

is(folds(), $inserted, 'each event was folded once');
for my $point ('batch-start', 'batch-folded')
{
	my $from = -s $node->logfile;
	my $again = folds() - $inserted;
	my $deaths;

	debug_points("$point=fatal");
	rows_until(sub {
		$deaths = () = slurp_file($node->logfile, $from) =~ /debug point "$point" ended the process/g;
		return $deaths >= 2;
	});
	cmp_ok($node->safe_psql('postgres', 'SELECT n FROM counted'),
		'>=', 1000, "$point: readers see the state of a worker that is dead");
	debug_points('');
	exact("FATAL at $point");
	is($node->safe_psql('postgres', 'SELECT n FROM counted'), $inserted, "$point: all counted");
	$again = folds() - $inserted - $again;
	# what it was about to publish, once more for each death
	if ($point eq 'batch-start') { is($again, 0, "$point: nothing is folded again") }
	else
	{
		cmp_ok($again, '>', 0, "$point: what was not published is folded again");
		cmp_ok($again, '<', 1000, "$point: and nothing else");
	}
}

# One that ended inside a publish leaves groups without their position: its
# successor does not believe them, and replays from the checkpoint.
my $from = -s $node->logfile;
debug_points('state-publish-end=fatal');
rows_until(sub {
	my $deaths = () = slurp_file($node->logfile, $from) =~ /debug point "state-publish-end" ended the process/g;
	return $deaths >= 2;
});
debug_points('');
exact('FATAL inside a publish');
is($node->safe_psql('postgres', 'SELECT n FROM counted'), $inserted, 'nothing is counted twice');

my $again = folds() - $inserted;
debug_points('batch-folded=error@1');
rows_until(sub { return folds() - $inserted > $again });
debug_points('');
exact('ERROR at batch-folded');
cmp_ok(folds() - $inserted - $again, '<', 1000, 'ERROR: only what was not published is folded again');
is($node->safe_psql('postgres', $on_disk), $position, 'without a checkpoint on the way');

# the sequence does tell: this is replayed
my $victim = worker();
kill('KILL', $victim);
$node->poll_query_until('postgres',
	"SELECT count(*) > 0 AND bool_and(pid <> $victim) FROM weir.workers")
  or die 'no new worker';
exact('kill -9 of the worker');
is(weir_patiently($node, 'SELECT n FROM counted'), $inserted, 'kill -9: all counted');
cmp_ok(weir_patiently($node, 'SELECT last_value FROM folds'),
	'>', $inserted + 1000, 'after a crash all is folded again');
$node->safe_psql('postgres', 'ALTER SYSTEM RESET weir.checkpoint_interval');
$node->safe_psql('postgres', 'SELECT pg_reload_conf()');

my $log = slurp_file($node->logfile);
unlike($log, qr/TRAP:|PANIC:/, 'no assertion failed, no panic');

# A damaged checkpoint is found, named, and REFRESH repairs it.
weir_patiently($node, 'SELECT weir.checkpoint()');
$node->safe_psql('postgres',
	"SELECT weir.pause('live')");
$node->poll_query_until('postgres',
	"SELECT state = 'paused' FROM weir.views WHERE view = 'live'::regclass");
$node->safe_psql('postgres',
	"UPDATE weir.view_state SET data = set_byte(data, length(data) / 2,"
	  . " get_byte(data, length(data) / 2) # 255)"
	  . " WHERE view = 'live'::regclass");
$node->restart;
$node->safe_psql('postgres', "SELECT weir.resume('live')");
$node->poll_query_until('postgres',
	"SELECT state = 'failed' FROM weir.views WHERE view = 'live'::regclass");
like(
	weir_patiently($node, "SELECT error FROM weir.views WHERE view = 'live'::regclass"),
	qr/checksum|damaged|corrupt/i,
	'the failed view says what is damaged');
$node->safe_psql('postgres', 'REFRESH MATERIALIZED VIEW live');
exact('rebuilt');

# States of several MB, which are loaded part by part: all in one table and in
# many, written by one checkpoint and by several.
$node->safe_psql('postgres', <<'SQL');
CREATE TABLE b (k int, ts timestamptz NOT NULL) USING stream WITH (event_time = ts, watermark_delay = '1 day');
CREATE MATERIALIZED VIEW b_one USING continuous AS SELECT k, count(*) AS n, sum(k) AS s FROM b GROUP BY k;
CREATE MATERIALIZED VIEW b_many USING continuous AS
  SELECT window_start, k, count(*) AS n, sum(k) AS s FROM b, tumble(ts, '1 minute') GROUP BY window_start, k;
SQL
my %big = (
	b_one  => 'SELECT k, count(*), sum(k) FROM b GROUP BY k',
	b_many => "SELECT window_start, k, count(*), sum(k) FROM b, tumble(ts, '1 minute') GROUP BY window_start, k");
for my $round (1 .. 3)
{
	$node->safe_psql('postgres', "INSERT INTO b SELECT i, timestamptz '2026-01-01 00:00Z' + i % 20 * interval '1 minute'"
		  . " FROM generate_series($round, 40000, 2 * $round - 1) i");
	weir_wait($node, "round $round is consumed");
	$node->safe_psql('postgres', 'SELECT weir.checkpoint()');
	$node->stop('immediate');
	$node->start;
	ok($node->poll_query_until('postgres', "SELECT count(*) = 2 FROM weir.views WHERE view::text LIKE 'b_%' AND state = 'running' AND worker_pid IS NOT NULL"),
		"round $round: loaded again");
	# the next events meet the groups that were loaded
	$node->safe_psql('postgres', "INSERT INTO b SELECT i, '2026-01-01 00:05Z' FROM generate_series(1, 40000, 1000) i");
	weir_wait($node, "round $round is consumed after that");
	is($node->safe_psql('postgres', "SELECT groups FROM weir.views WHERE view = 'b_one'::regclass"), '40000', "round $round: groups");
	weir_same($node, $_, $big{$_}, "round $round: $_ is exact") for sort keys %big;
}
# A checkpoint of all groups is all there is.
my $checkpoints = "SELECT string_agg(view || '=' || n, ' ' ORDER BY view::text) FROM (SELECT view::regclass, count(DISTINCT seq) > 1 AS n"
  . " FROM weir.view_state WHERE view::regclass::text LIKE 'b_%' GROUP BY 1) q";
is($node->safe_psql('postgres', $checkpoints), 'b_many=true b_one=true', 'blobs of several checkpoints');
$node->safe_psql('postgres', "INSERT INTO b SELECT i, '2026-01-01 00:05Z' FROM generate_series(1, 40000) i");
weir_wait($node, 'all groups of one view have changed');
$node->safe_psql('postgres', 'SELECT weir.checkpoint()');
is($node->safe_psql('postgres', $checkpoints), 'b_many=true b_one=false', 'older blobs are gone where all groups have been written');
$node->restart('immediate');
weir_wait($node, 'all groups: loaded again');
weir_same($node, $_, $big{$_}, "all groups: $_ is exact") for sort keys %big;
# A small state stays small, however many versions of its groups there are.
$node->safe_psql('postgres', 'CREATE MATERIALIZED VIEW b_small USING continuous AS SELECT k % 100 AS k, count(*) AS n FROM b GROUP BY 1');
for (1 .. 15)
{
	$node->safe_psql('postgres', "INSERT INTO b SELECT i, '2026-01-01 00:05Z' FROM generate_series(1, 100) i");
	weir_wait($node, "small, $_");
	$node->safe_psql('postgres', 'SELECT weir.checkpoint()');
}
my $bytes = "SELECT state_bytes FROM weir.views WHERE view = 'b_small'::regclass AND state = 'running' AND worker_pid IS NOT NULL";
my $before = $node->safe_psql('postgres', $bytes);
my $versions = $node->safe_psql('postgres', "SELECT sum(ngroups) FROM weir.view_state WHERE view = 'b_small'::regclass");
cmp_ok($versions, '>', 1024, 'small: as many versions as a large state has groups');
$node->restart;
weir_wait($node, 'small: loaded again');
my $after = $node->safe_psql('postgres', $bytes);
cmp_ok($after, '<=', $before * 1.2, 'small: and no larger than before');


# Somebody else has written the position row since: the worker's checkpoint does
# not overwrite it, but the view goes on from there.
$from = -s $node->logfile;
$node->safe_psql('postgres', 'SELECT weir.checkpoint()');
$node->safe_psql('postgres', "UPDATE weir.view_position SET view = view WHERE view = 'win'::regclass");
events();
$node->safe_psql('postgres', "SELECT weir.wait_for('win', '120 s'); SELECT weir.checkpoint()");
like(slurp_file($node->logfile, $from), qr/continuous view \d+ has another owner/, 'of two owners one gives up');
exact('with one owner');

# A checkpoint holds states as the types were then.
$node->safe_psql('postgres', <<'SQL');
CREATE TYPE pair AS (a int, b text);
CREATE TABLE p (k pair) USING stream;
CREATE MATERIALIZED VIEW pairs USING continuous AS SELECT k, count(*) AS n FROM p GROUP BY k;
INSERT INTO p VALUES ('(1,a)'), ('(1,a)'), ('(1,b)');
SELECT weir.wait_for('pairs', '120 s');
SELECT weir.checkpoint();
ALTER TYPE pair ADD ATTRIBUTE c int;
SQL
$node->restart('immediate');
(undef, undef, my $err) = $node->psql('postgres', "\\set VERBOSITY verbose\nSELECT weir.wait_for('pairs', '120 s')");
like($err, qr/ERROR:  55000: .*"pairs"/, 'another form than now: the view has failed');
like($node->safe_psql('postgres', "SELECT error FROM weir.views WHERE view = 'pairs'::regclass"),
	qr/checkpoint of continuous view "pairs" cannot be read/, 'and says why');
$node->stop;
done_testing();
