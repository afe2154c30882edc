# Whatever stops the server, a view ends at the rows of its query: nothing
# lost, nothing twice, no half transaction.

use strict;
use warnings;

use lib 'test/tap';
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use WeirTest;

my $node = weir_node('crash');

# The second psql of a crash must find a server that restarts by itself.
$node->append_conf('postgresql.conf', 'restart_after_crash = on');
$node->restart;

$node->safe_psql(
	'postgres', q{
	CREATE TABLE bids (auction bigint, price bigint, ts timestamptz NOT NULL)
		USING stream WITH (event_time = ts, watermark_delay = '1 hour');
	CREATE MATERIALIZED VIEW per_minute USING continuous AS
		SELECT window_start, auction, count(*) AS n, sum(price) AS s, max(price) AS m
		FROM bids, tumble(ts, '1 minute') GROUP BY window_start, auction;
	CREATE MATERIALIZED VIEW total USING continuous AS
		SELECT count(*) AS n, sum(price) AS s FROM bids;});

my %query = (
	per_minute => q{SELECT window_start, auction, count(*), sum(price), max(price)
		FROM bids, tumble(ts, '1 minute') GROUP BY window_start, auction},
	total => 'SELECT count(*), sum(price) FROM bids');

my $round = 0;

sub load
{
	$round++;
	$node->safe_psql(
		'postgres', qq{
		INSERT INTO bids SELECT i % 17, i, '2026-01-01 00:00:00Z'::timestamptz
			+ ($round * 50 + i % 100) * interval '1 second' FROM generate_series(1, 1000) i;
		BEGIN;
		INSERT INTO bids SELECT 1, 1000000, '2026-01-01 00:00:00Z' FROM generate_series(1, 100);
		ROLLBACK;
		BEGIN;
		INSERT INTO bids VALUES (1, $round, '2026-01-01 00:00:00Z');
		SAVEPOINT s;
		INSERT INTO bids VALUES (1, 1000000, '2026-01-01 00:00:00Z');
		ROLLBACK TO s;
		COMMIT;});
}

sub check
{
	my ($what) = @_;

	weir_wait($node, "$what: caught up");
	weir_same($node, $_, $query{$_}, "$what: $_") for sort keys %query;
	is($node->safe_psql('postgres', 'SELECT count(*) FROM bids'),
		$round * 1001, "$what: no event lost");
}

load();
check('first load');

# with and without a checkpoint since the load
for my $mode ('fast', 'immediate', 'immediate after checkpoint')
{
	load();
	$node->safe_psql('postgres', 'SELECT weir.checkpoint()') if $mode =~ /checkpoint/;
	load();
	$node->stop((split / /, $mode)[0]);
	$node->start;
	check("stop $mode");
}

# kill -9 of a worker: PostgreSQL restarts all its processes
for my $i (1 .. 3)
{
	load();
	my $pid = $node->safe_psql('postgres',
		"SELECT worker_pid FROM weir.views WHERE view = 'total'::regclass");
	like($pid, qr/^\d+$/, "kill $i: a worker runs the view");
	kill 'KILL', $pid;
	$node->poll_query_until('postgres',
		"SELECT pid <> $pid FROM (SELECT worker_pid AS pid FROM weir.views WHERE view = 'total'::regclass) v")
	  or die 'no new worker';
	load();
	check("kill -9 of the worker, $i");
}

# a terminated worker leaves its state behind for its successor
for my $i (1 .. 3)
{
	$node->safe_psql('postgres',
		'SELECT pg_terminate_backend(worker_pid) FROM weir.views');
	load();
	check("terminated worker, $i");
}

# whoever may signal it cannot get rid of the launcher; without one a worker that
# ends would be the last
my $launcher = "FROM pg_stat_activity WHERE backend_type = 'pg_weir launcher'";
my $old = $node->safe_psql('postgres', "SELECT pid $launcher");
$node->safe_psql('postgres', "SELECT pg_terminate_backend(pid) $launcher");
ok( $node->poll_query_until(
		'postgres', "SELECT count(*) = 1 $launcher AND pid <> $old"),
	'the launcher comes back');
$node->safe_psql('postgres',
	'SELECT pg_terminate_backend(worker_pid) FROM weir.views');
load();
check('terminated launcher and worker');

# prepared transactions count from COMMIT PREPARED, also across a crash
$node->safe_psql(
	'postgres', q{
	BEGIN;
	INSERT INTO bids SELECT 3, 3, '2026-01-01 00:00:00Z' FROM generate_series(1, 1001);
	PREPARE TRANSACTION 'p';
	BEGIN;
	INSERT INTO bids VALUES (3, 1000000, '2026-01-01 00:00:00Z');
	PREPARE TRANSACTION 'q';});
check('prepared: not there yet');
$node->stop('immediate');
$node->start;
check('prepared: not there after a crash');
$node->safe_psql('postgres', q{COMMIT PREPARED 'p'});
$node->safe_psql('postgres', q{ROLLBACK PREPARED 'q'});
$round++;
check('prepared: there when committed');

# final rows are written once
$node->safe_psql('postgres',
	q{SELECT weir.advance_watermark('bids', '2026-01-02 00:00:00Z'); });
weir_wait($node);
$node->stop('immediate');
$node->start;
weir_wait($node);
$node->safe_psql('postgres', 'SELECT weir.checkpoint()');
$node->stop('immediate');
$node->start;
check('all windows final');

# A crash empties an unlogged stream.  Its views keep what their last checkpoint
# has, go on with what comes after that, and do not forget their W; that of the
# stream begins anew.
$node->safe_psql(
	'postgres', q{
	ALTER SYSTEM SET weir.checkpoint_interval = '1 h';
	SELECT pg_reload_conf();
	CREATE UNLOGGED TABLE u (k int, ts timestamptz NOT NULL)
		USING stream WITH (event_time = ts, watermark_delay = '10 s');
	CREATE MATERIALIZED VIEW u_total USING continuous AS
		SELECT count(*) AS n, sum(k) AS s FROM u;
	CREATE MATERIALIZED VIEW u_minute USING continuous AS
		SELECT window_start, count(*) AS n FROM u, tumble(ts, '1 minute') GROUP BY window_start;
	INSERT INTO u SELECT 1, '2026-01-01 00:00:00Z'::timestamptz + i * interval '1 s'
		FROM generate_series(0, 199) i;});
weir_wait($node);
$node->safe_psql('postgres', 'SELECT weir.checkpoint()');
$node->safe_psql('postgres',
	q{INSERT INTO u SELECT 2, '2026-01-01 00:03:30Z' FROM generate_series(1, 10)});
weir_wait($node);

sub unlogged
{
	return $node->safe_psql(
		'postgres', q{
		SELECT n, s FROM u_total;
		SELECT string_agg(extract(minute FROM window_start) || ':' || n, ' ' ORDER BY window_start) FROM u_minute;
		SELECT count(*), extract(minute FROM weir.watermark('u')) FROM u;
		SELECT extract(minute FROM watermark), late FROM weir.views WHERE view = 'u_minute'::regclass});
}

is(unlogged(), "210|220\n0:60 1:60 2:60 3:30\n210|3\n3|0", 'unlogged: before the crash');
$node->stop('immediate');
$node->start;
weir_wait($node, 'unlogged: nothing to wait for');
is(unlogged(), "200|200\n0:60 1:60 2:60 3:20\n0|\n3|0", 'unlogged: as of the last checkpoint');
$node->safe_psql(
	'postgres', q{
	INSERT INTO u VALUES (4, '2026-01-01 00:01:00Z');
	INSERT INTO u SELECT 4, '2026-01-01 00:03:30Z' FROM generate_series(1, 5);});
weir_wait($node);
is(unlogged(), "206|224\n0:60 1:60 2:60 3:25\n6|3\n3|1",
	'unlogged: what comes then counts, or is late');
$node->stop('fast');
$node->start;
weir_wait($node);
is(unlogged(), "206|224\n0:60 1:60 2:60 3:25\n6|3\n3|1", 'unlogged: an orderly stop keeps it all');
$node->safe_psql('postgres', 'REFRESH MATERIALIZED VIEW u_total');
weir_wait($node);
is($node->safe_psql('postgres', 'TABLE u_total'), '6|24',
	'unlogged: REFRESH is from the events that are there');

weir_log_is_clean($node);
$node->stop;
done_testing();
