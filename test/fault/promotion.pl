# Promotions: again and again a primary under load dies and its standby takes
# over, by turns a synchronous one, which must have all that was acknowledged,
# and an asynchronous one.  In the end a base backup, taken under load.
#
# WEIR_PROMOTIONS (4) says how often.  When WEIR_FAULT_RESULT names a file, a line
# of figures is added to it.
use strict;
use warnings;

use lib 'test/tap';

use IPC::Run;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use WeirStandby;
use WeirTest;

my $rounds = $ENV{WEIR_PROMOTIONS} // 4;
my ($promotions, $transactions, %prepared) = (0, 0);

my $node = first_primary('first');
$node->append_conf('postgresql.conf', "weir.checkpoint_interval = '200ms'\n");
$node->reload;
# a standby's views are not empty from the first moment
insert_ids($node, 1 .. 300);
exact($node, 'the first primary');
$node->safe_psql('postgres', 'SELECT weir.checkpoint()');
my $base = 2000;

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
	my $standby = make_standby($node, "standby_r$round", "max_standby_streaming_delay = 0\n");
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
	my $old = $node;
	weir_kill9($old);
	$standby->promote;
	is($standby->safe_psql('postgres', 'SELECT pg_is_in_recovery()'), 'f', "$title: promoted");
	$promotions++;
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
	$transactions += @acked;
	# by the number in start_writer()
	$prepared{"t$_"} = 1 foreach grep { int(($_ - $base) / 3) % 50 == 7 } @acked;
	$node = $standby;
	exact($node, $title);
	my ($torn, $twice) = split /\|/, $node->safe_psql('postgres',
		'SELECT count(*) FILTER (WHERE n < 2), count(*) FILTER (WHERE n > 2)'
		  . ' FROM (SELECT count(*) AS n FROM s GROUP BY id) x');
	is("$torn, $twice", '0, 0', "$title: each transaction once and whole");
	$lost    += $torn;
	$doubled += $twice;
	is($node->safe_psql('postgres', 'SELECT sum(late) FROM weir.views'), '0', "$title: nothing late");
	if ($sync)
	{
		my $gone = $node->safe_psql('postgres',
			"CREATE TEMP TABLE a (id bigint);\nCOPY a FROM STDIN;\n"
			  . join('', map { "$_\n" } @acked)
			  . "\\.\nSELECT count(*) FROM a WHERE id NOT IN (SELECT id FROM s)");
		is($gone, '0', "$title: everything acknowledged is there");
		$lost += $gone;
	}

	# what was prepared ends here, one way or the other
	my $i = 0;
	for my $gid (split /\n/, $node->safe_psql('postgres', 'SELECT gid FROM pg_prepared_xacts ORDER BY 1'))
	{
		$prepared{$gid} = 1;
		$node->safe_psql('postgres', ($i++ % 2 ? 'ROLLBACK' : 'COMMIT') . " PREPARED '$gid'");
	}
	exact($node, "$title: $i prepared ones ended");
	$base += 40_000;

	# a disk that holds a copy of each is not needed
	$old->clean_node;
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
if ($ENV{WEIR_FAULT_RESULT})
{
	append_to_file($ENV{WEIR_FAULT_RESULT},
		"promotions=$promotions lost=$lost doubled=$doubled prepared="
		  . keys(%prepared) . " transactions=$transactions\n");
}
$_->stop for $node, $alone;
done_testing();
