# No background worker is free, no connection is free: what cannot be maintained
# says so, and goes on by itself when there is room again.
use strict;
use warnings;

use lib 'test/tap';

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(usleep);
use WeirTest;

my $node = PostgreSQL::Test::Cluster->new('limits');
$node->init(extra => [ '--no-locale', '--encoding=UTF8' ]);
$node->append_conf('postgresql.conf', slurp_file('test/pg_weir.conf'));
# two for the launchers of the server and of ours
$node->append_conf('postgresql.conf', <<'CONF');
max_worker_processes = 4
max_connections = 12
superuser_reserved_connections = 2
CONF
$node->start;
plan skip_all => 'needs background_psql' if !$node->can('background_psql');

sub free_workers
{
	my ($n) = @_;
	$node->poll_query_until('postgres',
		"SELECT count(*) = $n FROM pg_stat_activity WHERE backend_type IN ('parallel worker', 'pg_weir worker')")
	  or die "not $n workers";
}

# Takes a background worker, until it quits.
sub occupy
{
	my $psql = $node->background_psql('postgres');
	$psql->query_safe("SELECT set_config(name, 'on', false) FROM pg_settings WHERE name IN ('force_parallel_mode', 'debug_parallel_query')");
	$psql->query_until(qr/go/, "\\echo go\nSELECT pg_sleep(10000);\n");
	return $psql;
}

sub release
{
	my ($psql) = @_;
	$node->safe_psql('postgres',
		"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query ~ 'pg_sleep' AND pid <> pg_backend_pid() AND leader_pid IS NULL LIMIT 1");
	eval { $psql->quit };
}

# ------------------------------------------------------------------- workers

free_workers(0); # those that look for the extension have found none
my @busy = (occupy());
free_workers(1);
push @busy, occupy();
free_workers(2);
my $from = -s $node->logfile;
$node->safe_psql('postgres', <<'SQL');
CREATE EXTENSION pg_weir;
CREATE TABLE s (k int, x int) USING stream;
CREATE TABLE t (k int, x int) USING stream;
CREATE MATERIALIZED VIEW vs USING continuous AS SELECT k, sum(x) AS x FROM s GROUP BY k;
CREATE MATERIALIZED VIEW vt USING continuous AS SELECT k, sum(x) AS x FROM t GROUP BY k;
INSERT INTO s SELECT i % 7, i FROM generate_series(1, 1000) i;
INSERT INTO t SELECT i % 7, i FROM generate_series(1, 1000) i;
SQL
my $report = q{SELECT count(*), count(worker_pid), count(error), bool_and(error ~ 'max_worker_processes') FROM weir.views};
$node->poll_query_until('postgres', $report, '2|0|2|t') or die 'nobody says so';
pass('no worker: weir.views says so');
is($node->safe_psql('postgres', 'SELECT DISTINCT state FROM weir.views'), 'building', 'no worker: not yet built');
like(substr(slurp_file($node->logfile), $from),
	qr/no background worker is free .*HINT:  Increase max_worker_processes/s, 'no worker: the log says so');
is($node->safe_psql('postgres', "SELECT weir.wait_for('vs', '100 ms')"), 'f', 'no worker: nothing comes');
is($node->safe_psql('postgres', 'SELECT count(*) FROM vs'), '0', 'no worker: the view can be read');

# one of the two that are wanted
release(shift @busy);
$node->poll_query_until('postgres', $report, '2|1|1|t') or die 'one does not run';
is($node->safe_psql('postgres', q{SELECT weir.wait_for(view) FROM weir.views WHERE worker_pid IS NOT NULL}), 't',
	'one worker: it runs what it can');
release(shift @busy);
weir_wait($node, 'workers are free: it goes on by itself');
weir_same($node, "v$_", "SELECT k, sum(x) FROM $_ GROUP BY k", "v$_") for qw(s t);
$node->poll_query_until('postgres', $report, '2|2|0|') or die 'errors stay';
pass('workers are free: no error is left');

# --------------------------------------------------------------- connections

# those of the statements before may not be free yet
my @sessions;
for (my $tries = 0; @sessions < 12 && $tries < 600; $tries++)
{
	my $psql = eval { $node->background_psql('postgres') };
	push @sessions, $psql if $psql;
	usleep(100_000) if !$psql;
}
is(scalar @sessions, 12, 'all connections are taken');
my ($ret, $out, $err) = $node->psql('postgres', 'SELECT 1');
like($err, qr/too many clients|remaining connection slots/, 'no connection is free');
$sessions[0]->query_safe('INSERT INTO s SELECT i % 7, i FROM generate_series(1, 1000) i');
is($sessions[1]->query_safe('SELECT weir.wait_for()'), 't', 'no connection: views go on');
$sessions[2]->query_safe('SELECT pg_terminate_backend(pid) FROM weir.workers');
$sessions[0]->query_safe('INSERT INTO t SELECT i % 7, i FROM generate_series(1, 1000) i');
is($sessions[1]->query_safe('SELECT weir.wait_for()'), 't', 'no connection: workers start again');
is($sessions[3]->query_safe('SELECT sum(x) FROM vs'), $sessions[4]->query_safe('SELECT sum(x) FROM s'),
	'no connection: exact');
$_->quit for @sessions;
weir_same($node, "v$_", "SELECT k, sum(x) FROM $_ GROUP BY k", "at last v$_") for qw(s t);

weir_log_is_clean($node);
$node->stop;
done_testing();
