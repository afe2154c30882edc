# Point-in-time recovery to a time, a WAL position, a transaction and a named
# point, all in the middle of a load: views are exact there, and go on.
# WEIR_PITR: how many times, positions and transactions at random besides (1);
# WEIR_SEED replays which.
use strict;
use warnings;

use lib 'test/tap';

use IPC::Run;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use WeirTest;

my $random = $ENV{WEIR_PITR} // 1;
my $seed   = $ENV{WEIR_SEED} // int(rand(1_000_000_000));
diag("pitr: WEIR_SEED=$seed");
srand($seed);
my $node = weir_node('pitr', has_archiving => 1,
	conf => "weir.checkpoint_interval = '200ms'\n");
$node->safe_psql('postgres', <<'SQL');
CREATE TABLE s (id bigint, k int, x int, ts timestamptz NOT NULL) USING stream
  WITH (event_time = ts, watermark_delay = '10 s');
CREATE MATERIALIZED VIEW per_key USING continuous AS
  SELECT k, count(*) AS n, sum(x) AS x, sum(id) AS ids FROM s GROUP BY k;
CREATE MATERIALIZED VIEW per_minute USING continuous AS
  SELECT window_start, window_end, count(*) AS n, sum(x) AS x
  FROM s, tumble(ts, '1 minute') GROUP BY window_start, window_end;
CREATE MATERIALIZED VIEW total USING continuous AS
  SELECT count(*) AS n, sum(x) AS x FROM s;
CREATE TABLE mark (id int, lsn pg_lsn, at timestamptz, xid xid8);
SQL
my %query = (
	per_key => 'SELECT k, count(*), sum(x), sum(id) FROM s GROUP BY k',
	per_minute => 'SELECT window_start, window_end, count(*), sum(x)'
	  . " FROM s, tumble(ts, '1 minute') GROUP BY window_start, window_end",
	total => 'SELECT count(*), sum(x) FROM s');

$node->backup('base');

# Transactions that cancel in themselves; each is told to "mark".
my $dir = PostgreSQL::Test::Utils::tempdir();
my $sql = '';
for my $id (1 .. 3000)
{
	my $rows = join ', ', map { '(' . join(', ', $id, ($id + $_) % 7, $_ ? -$id : $id,
			  "'2026-01-01 00:00Z'::timestamptz + $id * interval '0.2 s'") . ')' } (0, 1);
	$sql .= "BEGIN; INSERT INTO s VALUES $rows;"
	  . " INSERT INTO mark VALUES ($id, pg_current_wal_lsn(), clock_timestamp(), pg_current_xact_id());"
	  . ($id % 10 ? ' COMMIT' : ' ROLLBACK') . ";\n";
	$sql .= "SELECT pg_create_restore_point('named');\n" if $id == 1501;
	$sql .= "SELECT weir.advance_watermark('s', '2026-01-01 00:03:10Z');\n" if $id == 1000;
}
append_to_file("$dir/sql", $sql);
$node->command_ok(
	[ 'psql', '-Xq', '-v', 'ON_ERROR_STOP=1', '-o', '/dev/null', '-d', $node->connstr('postgres'), '-f', "$dir/sql" ],
	'load');
weir_wait($node);
weir_same($node, $_, $query{$_}, "source: $_") for sort keys %query;

# kind => [ setting, first and last transaction that may be the last one ]; what
# "mark" has of a transaction is of before its commit
my %column = (lsn => 'lsn', time => 'at', xid => 'xid');

sub target
{
	my ($kind, $id) = @_;
	my $value = $node->safe_psql('postgres', "SELECT $column{$kind} FROM mark WHERE id = $id");

	return [ "recovery_target_$kind = '$value'", $kind eq 'xid' ? $id : $id - 102, $id ];
}

my %target = (
	lsn  => target('lsn', 801),
	time => target('time', 2002),
	xid  => target('xid', 2503),
	name => [ "recovery_target_name = 'named'", 1501, 1501 ]);
for my $n (1 .. $random)
{
	my $kind = (qw(lsn time xid))[ rand 3 ];
	my $id = 1 + int(rand(3000));

	# every tenth was rolled back
	$id++ if $id % 10 == 0;
	$target{"$n: $kind of $id"} = target($kind, $id) if $id < 3000;
}
$node->safe_psql('postgres', 'SELECT pg_switch_wal()');
$node->stop;

for my $kind (sort keys %target)
{
	my ($setting, $from, $to) = @{ $target{$kind} };
	my $copy = weir_copy($node, 'pitr_' . $kind =~ s/\W+/_/gr, backup => 'base',
		has_restoring => 1, standby => 0,
		conf => "$setting\nrecovery_target_action = promote\narchive_mode = off\n");
	$copy->poll_query_until('postgres', 'SELECT NOT pg_is_in_recovery()') or die;
	my $last = $copy->safe_psql('postgres', 'SELECT coalesce(max(id), 0) FROM mark');
	ok($last >= $from && $last <= $to, "$kind: ends at transaction $last");
	is( $copy->safe_psql('postgres', 'SELECT count(*), count(DISTINCT id) FROM s'),
		$copy->safe_psql('postgres', 'SELECT 2 * count(*), count(*) FROM mark'),
		"$kind: the log has what was committed by then");
	weir_wait($copy, "$kind: caught up");
	weir_same($copy, $_, $query{$_}, "$kind: $_") for sort keys %query;
	is($copy->safe_psql('postgres', 'SELECT sum(late) FROM weir.views'), '0', "$kind: nothing late");
	$copy->safe_psql('postgres', "INSERT INTO s SELECT 10000 + i, i % 7, i, '2026-01-01 00:10:01Z' FROM generate_series(1, 100) i");
	weir_wait($copy, "$kind: and on");
	weir_same($copy, $_, $query{$_}, "$kind: and on, $_") for sort keys %query;
	is($copy->safe_psql('postgres', 'SELECT n FROM total'),
		$copy->safe_psql('postgres', 'SELECT 2 * count(*) + 100 FROM mark'), "$kind: all is counted once");
	$copy->safe_psql('postgres', 'SELECT weir.checkpoint()');
	$copy->stop('immediate');
	$copy->start;
	weir_wait($copy, "$kind: after a crash");
	weir_same($copy, $_, $query{$_}, "$kind: after a crash, $_") for sort keys %query;
	weir_log_is_clean($copy);
	$copy->stop;
	$copy->clean_node;
}
done_testing();
