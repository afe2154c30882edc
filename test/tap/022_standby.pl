# A standby: what its views answer, what it refuses; promotion while the primary
# dies under load; the old primary comes back by pg_rewind.
use strict;
use warnings;

use lib 'test/tap';

use IPC::Run;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use WeirTest;

my $rounds = $ENV{WEIR_PROMOTIONS} // 4;

my $primary = weir_node('standby_0', conf => <<'CONF');
weir.checkpoint_interval = '1h'
max_standby_streaming_delay = -1
wal_log_hints = on
wal_keep_size = '512MB'
wal_receiver_timeout = '5s'
wal_retrieve_retry_interval = '100ms'
restart_after_crash = off
CONF
$primary->safe_psql('postgres', <<'SQL');
CREATE TABLE s (id bigint, k int, x int, ts timestamptz NOT NULL) USING stream
  WITH (event_time = ts, watermark_delay = '10 s');
CREATE MATERIALIZED VIEW per_key USING continuous AS
  SELECT k, count(*) AS n, sum(x) AS x, sum(id) AS ids FROM s GROUP BY k;
CREATE MATERIALIZED VIEW per_minute USING continuous AS
  SELECT window_start, window_end, count(*) AS n, sum(x) AS x
  FROM s, tumble(ts, '1 minute') GROUP BY window_start, window_end;
CREATE MATERIALIZED VIEW sessions USING continuous AS
  SELECT k, window_start, window_end, count(*) AS n
  FROM s, session(ts, '2 s') GROUP BY k, window_start, window_end;
CREATE MATERIALIZED VIEW total USING continuous AS
  SELECT count(*) AS n, sum(x) AS x FROM s;
SQL
my %query = (
	per_key => 'SELECT k, count(*), sum(x), sum(id) FROM s GROUP BY k',
	per_minute => 'SELECT window_start, window_end, count(*), sum(x)'
	  . " FROM s, tumble(ts, '1 minute') GROUP BY window_start, window_end",
	sessions => 'SELECT k, window_start, window_end, count(*)'
	  . " FROM s, session(ts, '2 s') GROUP BY k, window_start, window_end",
	total => 'SELECT count(*), sum(x) FROM s');

# Event times that grow with the id, so that nothing is late.
sub values_of
{
	my ($id, $time) = @_;
	return join(', ', map { "($id, "
			  . (($id * 7 + $_) % 13) . ', '
			  . ($_ ? -($id % 1000) : $id % 1000)
			  . ", '2026-01-01 00:00Z'::timestamptz + $time * interval '0.1 s')" }
		  (0, 1));
}

# Transactions of two rows each, in one session.
sub insert_ids
{
	my ($node, @ids) = @_;
	$node->safe_psql('postgres',
		join('', map { 'INSERT INTO s VALUES ' . values_of($_, $_) . ";\n" } @ids));
}

sub exact
{
	my ($node, $what) = @_;
	weir_wait($node, "$what: caught up");
	weir_same($node, $_, $query{$_}, "$what: $_") for sort keys %query;
}

sub rows_of
{
	my ($node) = @_;
	return join "\n--\n",
	  map { $node->safe_psql('postgres', "SELECT * FROM $_ ORDER BY 1, 2, 3") }
	  qw(per_key per_minute sessions);
}

sub make_standby
{
	my ($from, $name, $conf) = @_;

	return weir_copy($from, $name, has_streaming => 1,
		conf => "synchronous_standby_names = ''\n$conf");
}

# ---------------------------------------------------------------- reading

insert_ids($primary, 1 .. 300);
my $standby = make_standby($primary, 'standby_1', '');
exact($primary, 'primary');
$primary->safe_psql('postgres', 'SELECT weir.checkpoint()');
my $checkpointed = rows_of($primary);
insert_ids($primary, 301 .. 1200);
weir_wait($primary, 'more, and no checkpoint');
isnt(rows_of($primary), $checkpointed, 'primary goes on');
$primary->wait_for_catchup($standby);

is($standby->safe_psql('postgres', 'SELECT count(*) FROM s'), '2400',
	'standby: the stream has all events');
is(rows_of($standby), $checkpointed,
	'standby: views have what the last checkpoint had');
is($standby->safe_psql('postgres', 'SELECT n, x FROM total'), '600|0',
	'standby: the ungrouped one too');
is($standby->safe_psql('postgres', 'SELECT DISTINCT state, worker_pid IS NULL, lag_events IS NULL, error IS NULL FROM weir.views'),
	'standby|t|t|t', 'standby: weir.views says so');
is($standby->safe_psql('postgres', 'SELECT count(*) FROM weir.workers'), '0',
	'standby: no workers');
is($standby->safe_psql('postgres', "SELECT count(*) FROM pg_stat_activity WHERE backend_type LIKE 'pg_weir%'"),
	'0', 'standby: no process of ours');
is($standby->safe_psql('postgres', "SELECT log_bytes > 0, held_by IS NOT NULL FROM weir.streams"),
	't|t', 'standby: weir.streams');
like($standby->safe_psql('postgres', "SELECT string_agg(l, E'\\n') FROM weir.explain('per_minute') l"),
	qr/State: not in memory/, 'standby: weir.explain');
my $final = 'SELECT count(*) FILTER (WHERE weir.is_final(\'per_minute\', window_end)), count(*) FROM per_minute';
my ($nfinal, $nall) = split /\|/, $standby->safe_psql('postgres', $final);
ok($nfinal == $nall - 1, "standby: is_final ($nfinal of $nall)");

# the watermark goes with what is replayed
my $watermark = "SELECT weir.watermark('s')";
is($standby->safe_psql('postgres', $watermark),
	$primary->safe_psql('postgres', $watermark), 'standby: watermark');
insert_ids($primary, 1201 .. 1300);
$primary->wait_for_catchup($standby);
is($standby->safe_psql('postgres', $watermark),
	$primary->safe_psql('postgres', $watermark), 'standby: it moves');

# a snapshot of the standby keeps its rows, whatever the primary does
my $reader = $standby->background_psql('postgres');
my $sums = 'SELECT (SELECT sum(n) FROM per_key), (SELECT sum(n) FROM per_minute)';
$reader->query_safe('BEGIN ISOLATION LEVEL REPEATABLE READ');
is($reader->query_safe($sums), '600|600', 'standby: snapshot');
$primary->safe_psql('postgres',
	'SELECT weir.checkpoint(); VACUUM weir.view_state, weir.view_position, per_minute, per_key');
is($reader->query_safe($sums), '600|600', 'standby: snapshot holds');
$reader->query_safe('COMMIT');
$primary->wait_for_catchup($standby);
is($reader->query_safe($sums), '2600|2600', 'standby: then the next checkpoint');
$reader->quit;

# ---------------------------------------------------------------- refusals

my @refused = (
	[ "SELECT weir.wait_for('total')",              '55000' ],
	[ 'SELECT weir.wait_for()',                     '55000' ],
	[ 'SELECT weir.checkpoint()',                   '25006' ],
	[ "SELECT weir.pause('total')",                 '25006' ],
	[ "SELECT weir.resume('total')",                '25006' ],
	[ "SELECT weir.advance_watermark('s', now())",  '25006' ],
	[ "SELECT weir.advance_watermark('s', 'infinity')", '25006' ],
	[ 'REFRESH MATERIALIZED VIEW total',            '25006' ],
	[ 'REFRESH MATERIALIZED VIEW total WITH NO DATA', '25006' ],
	[ 'ALTER MATERIALIZED VIEW per_minute SET (emit = final)', '25006' ],
	[ 'DROP MATERIALIZED VIEW total',               '25006' ],
	[ 'TRUNCATE s',                                 '25006' ],
	[ 'VACUUM s',                                   '25006' ],
	[ "INSERT INTO s VALUES (1, 1, 1, now())",      '25006' ]);
for my $r (@refused)
{
	my ($ret, $out, $err) =
	  $standby->psql('postgres', "\\set VERBOSITY verbose\n$r->[0]", timeout => 60);
	like($err, qr/ERROR:  $r->[1]:/, "standby refuses $r->[0]");
	like($err, qr/HINT:/, 'with a hint') if $r->[1] eq '55000';
}

# --------------------------------------------- promotion without a checkpoint

# What the refused statements asked for must not be taken for truth later: what
# is not consumed yet is waited for.
my $debug = $primary->safe_psql('postgres',
	"SELECT count(*) FROM pg_settings WHERE name = 'weir.debug_points'");
my $holder;
if ($debug)
{
	$standby->append_conf('postgresql.conf', "weir.debug_points = 'batch-start=wait'\n");
	$standby->reload;
	$holder = $standby->background_psql('postgres');
	$holder->query_safe("SELECT pg_advisory_lock(1465207378, hashtext('batch-start'))");
}
insert_ids($primary, 1301 .. 1400);
$primary->safe_psql('postgres', 'BEGIN; INSERT INTO s VALUES '
	  . values_of($_, $_) . "; PREPARE TRANSACTION 'p$_'") for 1401, 1402, 1403;
$primary->safe_psql('postgres', "COMMIT PREPARED 'p1401'");
$primary->wait_for_catchup($standby);
my $w = $primary->safe_psql('postgres', $watermark);
weir_kill9($primary);
$standby->promote;
is( $standby->safe_psql('postgres',
		"SELECT max(position) < pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0') FROM weir.view_position"),
	't', 'promoted: no position is ahead of the WAL');
is($standby->safe_psql('postgres', $watermark), $w, 'promoted: watermark');
if ($debug)
{
	is($standby->safe_psql('postgres', "SELECT weir.wait_for('total', '1 s')"),
		'f', 'promoted: what is not consumed is waited for');
	$holder->query_safe('SELECT pg_advisory_unlock_all()');
	$holder->quit;
}
exact($standby, 'promoted');
is($standby->safe_psql('postgres', 'SELECT n FROM total'), '2802',
	'promoted: all but what is prepared');
$standby->safe_psql('postgres', "COMMIT PREPARED 'p1402'");
$standby->safe_psql('postgres', "ROLLBACK PREPARED 'p1403'");
exact($standby, 'promoted, prepared ones ended');
is($standby->safe_psql('postgres', 'SELECT n FROM total'), '2804',
	'promoted: what was prepared counts when it is committed');
insert_ids($standby, 1500);
exact($standby, 'promoted, and on');

# ------------------------------------------------------------- pg_rewind

# The old primary had some more that nobody got; it comes back without it.
weir_start($primary);
insert_ids($primary, 900_001 .. 900_100);
$primary->safe_psql('postgres', 'SELECT weir.checkpoint()');
is($primary->safe_psql('postgres', 'SELECT count(*) FROM s WHERE id > 900000'),
	'200', 'rewind: the old primary has gone astray');
$primary->stop;
$standby->safe_psql('postgres', 'CHECKPOINT');
command_ok(
	[   'pg_rewind', '--target-pgdata', $primary->data_dir,
		'--source-server', $standby->connstr('postgres'), '--no-sync' ],
	'pg_rewind');
$primary->append_conf('postgresql.conf', 'port = ' . $primary->port . "\n");
$primary->append_conf('postgresql.conf', "weir.debug_points = ''\n") if $debug;
$primary->enable_streaming($standby);
$primary->start;
$standby->wait_for_catchup($primary);
is($primary->safe_psql('postgres', 'SELECT count(*) FROM s WHERE id > 900000'),
	'0', 'rewind: what was astray is gone');
is($primary->safe_psql('postgres', 'SELECT DISTINCT state FROM weir.views'),
	'standby', 'rewind: a standby now');
insert_ids($standby, 1501);
$standby->wait_for_catchup($primary);
$standby->stop('immediate');
$primary->promote;
exact($primary, 'rewind, promoted back');
is($primary->safe_psql('postgres', 'SELECT count(*), count(DISTINCT id) FROM s WHERE id >= 1500'),
	'4|2', 'rewind: with what came meanwhile');
insert_ids($primary, 1502);
exact($primary, 'rewind, promoted back, and on');

# ------------------------------------------------------- promotion under load

my $node = $primary;
$node->append_conf('postgresql.conf', "weir.checkpoint_interval = '200ms'\n");
$node->reload;
my $base = 2000;
my %acked;

sub start_writer
{
	my ($writer, $first) = @_;
	my $dir = PostgreSQL::Test::Utils::tempdir();
	my $sql = '';
	for my $i (0 .. 9999)
	{
		my $id = $first + $i * 3 + $writer;
		# neighbours in time, nothing late for 10 s of events
		my $insert = 'INSERT INTO s VALUES ' . values_of($id, $first + $i / 20);
		if    ($i % 10 == 3) { $sql .= "BEGIN; $insert; ROLLBACK;\n"; next }
		elsif ($i % 10 == 5)
		{
			$sql .= "BEGIN; SAVEPOINT a; $insert; ROLLBACK TO a; $insert; COMMIT;\n";
		}
		elsif ($i % 50 == 7)
		{
			$sql .= "BEGIN; $insert; PREPARE TRANSACTION 't$id';\n";
			next if $i % 250 == 7;
			$sql .= "COMMIT PREPARED 't$id';\n";
		}
		else { $sql .= "$insert;\n" }
		$sql .= "\\echo $id\n";
	}
	append_to_file("$dir/sql", $sql);
	my $out = "$dir/out";
	my $h = IPC::Run::start(
		[   'psql', '-XqAt', '-v', 'ON_ERROR_STOP=1', '-d',
			$node->connstr('postgres'), '-f', "$dir/sql" ],
		'>', $out, '2>', "$dir/err");
	return { h => $h, out => $out };
}

# Sums that cancel, several times in one snapshot.
sub start_reader
{
	my ($at) = @_;
	my $dir = PostgreSQL::Test::Utils::tempdir();
	my $sums = "SELECT (SELECT sum(x) FROM per_key), (SELECT sum(x) FROM per_minute), (SELECT n % 2 + x FROM total);\n";
	my $read = "BEGIN ISOLATION LEVEL REPEATABLE READ;\n" . $sums x 5 . "COMMIT;\n";
	append_to_file("$dir/sql", $read x 5000);
	my ($out, $err) = ("$dir/out", "$dir/err");
	my $h = IPC::Run::start(
		[ 'psql', '-XqAt', '-d', $at->connstr('postgres'), '-f', "$dir/sql" ],
		'>', $out, '2>', $err);
	return { h => $h, out => $out, err => $err };
}

for my $round (1 .. $rounds)
{
	my $sync = $round % 2;
	my $title = "round $round, " . ($sync ? 'sync' : 'async');
	$standby = make_standby($node, "standby_r$round", "max_standby_streaming_delay = 0\n");
	if ($sync)
	{
		$node->safe_psql('postgres', "ALTER SYSTEM SET synchronous_standby_names = 'standby_r$round'");
		$node->reload;
		$node->poll_query_until('postgres',
			"SELECT sync_state = 'sync' FROM pg_stat_replication WHERE application_name = 'standby_r$round'")
		  or die;
	}
	my @writers = map { start_writer($_, $base) } 0 .. 2;
	my @readers = map { start_reader($_) } ($standby) x 2, $node;
	my $goal    = 1000 + int(rand(1500));
	for (1 .. 3000)
	{
		my $n = 0;
		$n += () = slurp_file($_->{out}) =~ /\n/g for @writers;
		last if $n >= $goal;
		# what the standby's snapshots see is taken away
		$node->safe_psql('postgres',
			"SELECT weir.checkpoint();\nVACUUM weir.view_state, weir.view_position, per_minute;");
	}
	weir_kill9($node);
	$standby->promote;
	$_->{h}->finish for @writers;
	$_->{h}->kill_kill for @readers;

	# whole transactions only, or a clean error
	my @rows   = map { split /\n/, slurp_file($_->{out}) } @readers;
	my @errors = map { grep { /ERROR|FATAL/ } split /\n/, slurp_file($_->{err}) } @readers;
	is_deeply([ grep { !/^0\|0\|0/ } @rows ], [], "$title: " . @rows . ' reads of whole transactions');
	# what follows in the same transaction follows from the first
	is_deeply([ grep { !/conflict with recovery|unexpected postmaster exit|current transaction is aborted/ } @errors ],
		[], "$title: no error but conflicts with recovery, and the primary's end");
	my @acked = map { split /\n/, slurp_file($_->{out}) } @writers;
	cmp_ok(scalar @acked, '>=', $goal, "$title: load");
	$node = $standby;
	exact($node, $title);
	is($node->safe_psql('postgres', 'SELECT count(*) FROM (SELECT FROM s GROUP BY id HAVING count(*) <> 2) x'),
		'0', "$title: each transaction once and whole");
	is($node->safe_psql('postgres', 'SELECT sum(late) FROM weir.views'), '0', "$title: nothing late");
	if ($sync)
	{
		my $lost = $node->safe_psql('postgres',
			"CREATE TEMP TABLE a (id bigint);\nCOPY a FROM STDIN;\n"
			  . join('', map { "$_\n" } @acked)
			  . "\\.\nSELECT count(*) FROM a WHERE id NOT IN (SELECT id FROM s)");
		is($lost, '0', "$title: everything acknowledged is there");
	}

	# what was prepared ends here, one way or the other
	my $i = 0;
	for my $gid (split /\n/, $node->safe_psql('postgres', 'SELECT gid FROM pg_prepared_xacts ORDER BY 1'))
	{
		$node->safe_psql('postgres', ($i++ % 2 ? 'ROLLBACK' : 'COMMIT') . " PREPARED '$gid'");
	}
	exact($node, "$title: $i prepared ones ended");
	$base += 40_000;
}

# ------------------------------------------ a base backup, started by itself

my @writers = map { start_writer($_, $base) } 0 .. 2;
$node->poll_query_until('postgres', "SELECT count(*) > 100 FROM s WHERE id >= $base") or die;
my $alone = weir_copy($node, 'alone');
exact($alone, 'base backup');
is($alone->safe_psql('postgres', 'SELECT count(*) FROM (SELECT FROM s GROUP BY id HAVING count(*) <> 2) x'),
	'0', 'base backup: whole transactions');
$alone->safe_psql('postgres', 'INSERT INTO s VALUES ' . values_of($base + 39_999, $base + 600));
exact($alone, 'base backup, and on');
$_->{h}->kill_kill for @writers;
exact($node, 'its source');

weir_log_is_clean($_) for $node, $alone;
$_->stop for $node, $alone;
done_testing();
