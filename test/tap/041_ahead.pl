# What is written ahead of a checkpoint, between batches: it counts for nothing
# until the checkpoint is there, wherever the server, the worker or a slice of it
# dies, whoever reads meanwhile, and whatever changes between two slices.
use strict;
use warnings;

use lib 'test/tap';

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(usleep);
use WeirTest;

my $node = weir_node('ahead', conf => <<'CONF');
restart_after_crash = on
fsync = off
weir.checkpoint_interval = '10 ms'
CONF
plan skip_all => 'a build without debug points'
  if $node->psql('postgres', 'SHOW weir.debug_points') != 0;

my %query = (g => 'SELECT k, count(*), sum(v) FROM s WHERE x <= %d GROUP BY k');
my $lock;

sub sql { return $node->safe_psql('postgres', $_[0]) }

sub points
{
	my ($points) = @_;

	$node->append_conf('postgresql.conf', "weir.debug_points = '$points'");
	$node->reload if $node->{_pid};
}

# The worker will stand at that point.
sub hold
{
	my ($point, $hit, @more) = @_;

	$lock = $node->background_psql('postgres');
	$lock->query_safe("SELECT pg_advisory_lock(1465207378, hashtext('$point'))");
	points(join ',', "$point=wait\@$hit", @more);
}

sub standing
{
	my ($point) = @_;

	return "SELECT count(*) > 0 FROM pg_locks WHERE locktype = 'advisory'"
	  . " AND objid::bigint = hashtext('$point')::bigint & 4294967295 AND NOT granted";
}

sub stands
{
	my ($point) = @_;

	$node->poll_query_until('postgres', standing($point)) or die "nobody has come to $point";
}

sub stands_soon
{
	my ($point) = @_;

	for (1 .. 50)
	{
		return 1 if sql(standing($point)) eq 't';
		usleep(100_000);
	}
	return 0;
}

sub release
{
	$lock->query_safe('SELECT pg_advisory_unlock_all()');
	$lock->quit;
}

# Each group of 1 .. n is written by transaction x.
my $x = 0;

sub write_groups
{
	my ($n, $step) = @_;

	$x++;
	sql("INSERT INTO s SELECT $x, i, $x + i % 7, timestamptz '2026-01-01Z' + $x * interval '10 s'"
		  . " FROM generate_series(1, $n, " . ($step // 1) . ') i');
}

sub same
{
	my ($view, $through, $what) = @_;

	weir_same($node, $view, sprintf($query{$view}, $through), "$what: $view");
}

sub exact
{
	my ($what) = @_;

	ok(weir_go_on($node), "$what: consumed");
	same($_, $x, $what) for sort keys %query;
}

my $orphans = <<'SQL';
SELECT s.ctid::text || s.xmin::text AS blob FROM weir.view_state s JOIN weir.view_position p USING (view, generation)
WHERE s.seq > p.checkpoint_seq ORDER BY s.ctid
SQL

# Loaded anew, it is the same.
sub exact_again
{
	my ($what) = @_;

	exact($what);
	weir_patiently($node, 'SELECT weir.checkpoint()');
	$node->stop('immediate');
	weir_start($node);
	exact("$what, and after a crash");
	weir_patiently($node, 'SELECT weir.checkpoint()');
}

sql(<<'SQL');
CREATE TABLE s (x int, k int, v int, ts timestamptz) USING stream WITH (event_time = ts, watermark_delay = '10 s');
CREATE MATERIALIZED VIEW g USING continuous AS SELECT k, count(*) AS n, sum(v) AS total FROM s GROUP BY k;
SQL
write_groups(5000);
exact('to begin with');
weir_patiently($node, 'SELECT weir.checkpoint()');

# A server dies between two slices.  What they have written is there, but who
# reads what is on disk does not see it, and the next worker throws it away.
hold('ahead-committed', 5);
write_groups(5000);
stands('ahead-committed');
my $before = sql($orphans);
isnt($before, '', 'slices have been written');
sql(q{SELECT pg_logical_emit_message(true, '', '')}); # its commit is synchronous
same('g', $x, 'readers have the state in memory');
weir_kill9($node);
eval { $lock->quit };
points('view-open=error');
weir_start($node);
$node->poll_query_until('postgres', "SELECT bool_and(state = 'failed') FROM weir.views") or die;
same('g', $x - 1, 'on disk is the last checkpoint');
is(sql($orphans), $before, 'and the slices beside it');
points('');
exact('replayed');
weir_patiently($node, 'SELECT weir.checkpoint()');
is(sql('SELECT count(*) FROM (' . $orphans . ') o'), '0', 'no slice is left without its checkpoint');
my %is = map { $_ => 1 } split /\n/, sql('SELECT ctid::text || xmin::text FROM weir.view_state');
is_deeply([ grep { $is{$_} } split /\n/, $before ], [], 'those of the dead worker are gone');
exact_again('without them');

# What changes between two slices is written by another pass, and that alone.
my $seq = sql('SELECT checkpoint_seq FROM weir.view_position');
hold('ahead-committed', 3);
write_groups(5000);
stands('ahead-committed');
write_groups(5000, 25);
points('');
release();
exact('changed between two slices');
$node->poll_query_until('postgres', "SELECT checkpoint_seq >= $seq + 3 FROM weir.view_position") or die;
is(sql("SELECT count(*) FROM (SELECT seq FROM weir.view_state WHERE seq > $seq + 1 GROUP BY seq HAVING sum(ngroups) >= 5000) b"),
	'0', 'by the second pass not all');
cmp_ok(sql("SELECT sum(ngroups) FROM weir.view_state WHERE seq = $seq + 2"), '>=', 200, 'but what has changed');
exact_again('in two passes');

# Somebody else has written the position row: not one slice more.
my $from = -s $node->logfile;
hold('ahead-committed', 3, 'ahead-written=fatal@4');
write_groups(5000);
stands('ahead-committed');
sql('UPDATE weir.view_position SET view = view');
release();
exact('with two owners');
like(slurp_file($node->logfile, $from), qr/continuous view \d+ has another owner/, 'one gives up');
unlike(slurp_file($node->logfile, $from), qr/"ahead-written" ended the process/, 'at once');
points('');
exact_again('with one owner');

# Who asks for a checkpoint gets it, in the midst of it.
hold('ahead-committed', 3);
write_groups(5000);
stands('ahead-committed');
my $asks = $node->background_psql('postgres');
$asks->query_until(qr/asked/, "\\echo asked\nSELECT weir.checkpoint();\n");
$node->poll_query_until('postgres',
	"SELECT count(*) > 0 FROM pg_stat_activity WHERE query ~ '^SELECT weir.checkpoint' AND state = 'active' AND wait_event_type = 'Extension'")
  or die;
points('');
release();
$asks->quit;
is(sql("SELECT lag_events FROM weir.views"), '0', 'asked for meanwhile');
exact_again('asked for meanwhile');

# All groups have changed: what is older than the pass that writes them goes, but
# not what changes meanwhile.  Of fewer than all, older blobs have the others.
sql(<<'SQL');
CREATE TABLE f (x int, k int) USING stream;
CREATE MATERIALIZED VIEW fv USING continuous AS SELECT k, count(*) AS n, sum(x) AS total FROM f GROUP BY k;
SQL
sql('INSERT INTO f SELECT i, i FROM generate_series(1, 30000) i');
for my $step (1, 1, 2)
{
	my $what = "every $step. group of many";

	# nothing is written ahead of a worker's first checkpoint
	sql('INSERT INTO f VALUES (1, 1)');
	weir_wait($node, "$what: one first");
	sql('SELECT weir.checkpoint()');
	my $before = sql("SELECT checkpoint_seq FROM weir.view_position WHERE view = 'fv'::regclass");

	hold('ahead-committed', 3);
	for (1 .. 20)
	{
		# a worker that has not heard of the point yet goes past it
		sql("INSERT INTO f SELECT i, i FROM generate_series(1, 30000, $step) i");
		last if stands_soon('ahead-committed');
	}
	stands('ahead-committed');
	sql('INSERT INTO f SELECT i, i FROM generate_series(1, 30000, 11) i');
	points('');
	release();
	weir_wait($node, "$what: consumed");
	$node->poll_query_until('postgres',
		"SELECT position >= (SELECT max(weir.log_order('f', ctid)) FROM f) FROM weir.view_position WHERE view = 'fv'::regclass") or die;
	is(sql("SELECT count(*) > 0 FROM weir.view_state WHERE view = 'fv'::regclass AND seq <= $before"),
		$step == 1 ? 'f' : 't', "$what: older blobs");
	$node->stop('immediate');
	weir_start($node);
	weir_wait($node, "$what: loaded again");
	weir_same($node, 'fv', 'SELECT k, count(*), sum(x) FROM f GROUP BY k', "$what: exact");
}
sql('DROP TABLE f CASCADE');

# Views of other kinds; windows that close, sessions, a table that grows wide.
sql(<<'SQL');
CREATE MATERIALIZED VIEW w USING continuous AS
  SELECT window_start, k % 300 AS k, count(*) AS n, sum(v) AS total FROM s, tumble(ts, '1 minute') GROUP BY window_start, k % 300;
CREATE MATERIALIZED VIEW h USING continuous AS
  SELECT window_start, k % 70 AS k, count(*) AS n, sum(v) AS total FROM s, hop(ts, '30 s', '1 minute') GROUP BY window_start, k % 70;
CREATE MATERIALIZED VIEW c USING continuous AS
  SELECT window_start, window_end, k % 90 AS k, count(*) AS n, sum(v) AS total FROM s, session(ts, '25 s') GROUP BY window_start, window_end, k % 90;
SQL
%query = (
	%query,
	w => "SELECT window_start, k %% 300, count(*), sum(v) FROM s, tumble(ts, '1 minute') WHERE x <= %d GROUP BY window_start, k %% 300",
	h => "SELECT window_start, k %% 70, count(*), sum(v) FROM s, hop(ts, '30 s', '1 minute') WHERE x <= %d GROUP BY window_start, k %% 70",
	c => "SELECT window_start, window_end, k %% 90, count(*), sum(v) FROM s, session(ts, '25 s') WHERE x <= %d GROUP BY window_start, window_end, k %% 90");
exact('views of other kinds');

# A slice fails, its process ends, or dies; or all others go on meanwhile.
my %says = (
	error => 'debug point "%s" raised an error',
	cancel => 'debug point "%s" cancels',
	fatal => 'debug point "%s" ended the process',
	sleep => 'debug point "%s" sleeps',
	kill => 'was terminated by signal 9');
for my $point ('ahead-start', 'ahead-written', 'ahead-committed')
{
	for my $action (sort keys %says)
	{
		for my $hit (1, 7)
		{
			my $what = "$point, $action at hit $hit";
			my $said = $says{$action} =~ s/%s/$point/r;

			$from = -s $node->logfile;
			points("$point=$action\@$hit");
			weir_patiently($node, 'SELECT 1');
			for (1 .. 200)
			{
				last if index(slurp_file($node->logfile, $from), $said) >= 0;
				weir_try($node, 'SELECT 1');
				write_patiently(3000);
			}
			ok(index(slurp_file($node->logfile, $from), $said) >= 0, "$what: it came to that");
			points('');
			# once also without anything that would be written again by itself
			write_patiently(3000) if $hit == 1;
			exact($what);
		}
		exact_again("$point, $action");
	}
}

# The server may be about to restart; whether it is there is seen by the stream.
sub write_patiently
{
	my ($n) = @_;

	$x++;
	for (1 .. 1200)
	{
		last if weir_patiently($node, "SELECT EXISTS (SELECT FROM s WHERE x = $x)") eq 't';
		weir_try($node, "INSERT INTO s SELECT $x, i, $x + i % 7, timestamptz '2026-01-01Z' + $x * interval '10 s'"
			  . " FROM generate_series(1, $n) i");
	}
	weir_try($node, "SELECT weir.wait_for(NULL, '200 ms')");
}

# Groups that nothing has written for long are there after what is dead has been
# thrown away, which is done ahead, too: of several hundred versions few are left.
sql("INSERT INTO s SELECT $x, -i, 1, timestamptz '2026-01-01Z' + $x * interval '10 s' FROM generate_series(1, 300) i");
for (1 .. 60)
{
	write_groups(3000);
	sql("SELECT weir.wait_for('g', '60 s')");
	$node->poll_query_until('postgres', "SELECT position >= (SELECT max(weir.log_order('s', ctid)) FROM s WHERE x = $x) FROM weir.view_position WHERE view = 'g'::regclass") or die
	  if $_ % 10 == 0;
}
exact_again('rewritten');
cmp_ok(sql("SELECT sum(ngroups) FROM weir.view_state WHERE view = 'g'::regclass"), '<', 60 * 3000, 'dead versions go');

# A worker whose first checkpoint throws away what is dead, windows that are in the
# heap among it, and writes all that it has.
sql(<<'SQL');
CREATE MATERIALIZED VIEW d USING continuous AS
  SELECT window_start, k, count(*) AS n, sum(v) AS total FROM s, tumble(ts, '1 day') GROUP BY window_start, k;
SQL
$query{d} = "SELECT window_start, k, count(*), sum(v) FROM s, tumble(ts, '1 day') WHERE x <= %d GROUP BY window_start, k";
exact('windows of a day');
$node->append_conf('postgresql.conf', "weir.checkpoint_interval = '1 h'");
$node->reload;
sql('SELECT weir.checkpoint()');
for (1 .. 12)
{
	my $pid = sql("SELECT worker_pid FROM weir.views WHERE view = 'd'::regclass");

	# every other time the window before closes
	$x += 4320 if $_ % 2;
	sql("SELECT pg_terminate_backend($pid)");
	$node->poll_query_until('postgres', "SELECT worker_pid <> $pid AND state = 'running' FROM weir.views WHERE view = 'd'::regclass") or die;
	write_groups(5000);
	weir_wait($node, "round $_");
	sql('SELECT weir.checkpoint()');
	is(sql("SELECT count(*) FROM weir.views WHERE state = 'failed'"), '0', "round $_: saved");
}
exact_again('rewritten at once');
cmp_ok(sql("SELECT sum(ngroups) FROM weir.view_state WHERE view = 'g'::regclass"), '<', 11 * 5000, 'dead versions go at once');
$node->append_conf('postgresql.conf', "weir.checkpoint_interval = '10 ms'");
$node->reload;
sql('SELECT weir.checkpoint()');

# All at once: small transactions that widen the tables, and a server that dies.
sql('DROP MATERIALIZED VIEW h; DROP MATERIALIZED VIEW c; DROP MATERIALIZED VIEW d');
delete @query{qw(h c d)};
for my $round (1 .. 4)
{
	my $base = $round * 100_000;
	my $writer = $node->background_psql('postgres', on_error_stop => 0);
	my $seq = sql("SELECT checkpoint_seq FROM weir.view_position WHERE view = 'g'::regclass");

	$writer->query_until(qr/go/, <<"SQL");
\\echo go
DO \$\$ BEGIN FOR i IN 1 .. 100000 LOOP
	INSERT INTO s SELECT $x, $base + j, i % 5, timestamptz '2026-01-01Z' + $x * interval '10 s'
	FROM generate_series(i * 5 % 4000, i * 5 % 4000 + 40) j;
	COMMIT;
END LOOP; END \$\$;
SQL
	$node->poll_query_until('postgres', "SELECT count(*) > 8000 FROM s WHERE k > $base") or die;
	ok($node->poll_query_until('postgres', "SELECT checkpoint_seq > $seq + 5 FROM weir.view_position WHERE view = 'g'::regclass"),
		"small transactions, $round: checkpoints come");
	if ($round % 2) { weir_kill9($node); weir_start($node); }
	else
	{
		sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'DO %'");
		sql('SELECT pg_terminate_backend(worker_pid) FROM weir.views');
	}
	eval { $writer->quit };
	exact_again("small transactions, $round");
}
weir_log_is_clean($node);
$node->stop;
done_testing();
