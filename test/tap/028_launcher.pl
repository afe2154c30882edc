# How soon a worker is started again: at once when it was asked to end, ever more
# seldom when it crashes the server each time.

use strict;
use warnings;

use lib 'test/tap';
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(usleep);
use WeirTest;

my $node = weir_node('launcher');

$node->safe_psql(
	'postgres', q{
	ALTER SYSTEM SET restart_after_crash = on;
	CREATE TABLE s (k int) USING stream;
	CREATE MATERIALIZED VIEW v USING continuous AS SELECT count(*) AS n FROM s;});
weir_wait($node);
my $trace = sprintf '%s/pg_stat/pg_weir.%d.0', $node->data_dir,
	$node->safe_psql('postgres', q{SELECT oid FROM pg_database WHERE datname = 'postgres'});

# a file's content, when it is what is waited for
sub trace_becomes
{
	my ($wanted) = @_;

	for (1 .. 2400)
	{
		my $text = -f $trace ? slurp_file($trace) : 'none';
		return $text if $text =~ /^$wanted$/;
		usleep(50_000);
	}
	return -f $trace ? slurp_file($trace) : 'none';
}

# With a growing delay the last would come after 51 seconds.
my $comes = '';
for (1 .. 10)
{
	$node->safe_psql('postgres', q{SELECT pg_terminate_backend(pid, 60000) FROM weir.workers});
	$node->safe_psql('postgres', 'INSERT INTO s VALUES (1)');
	$comes .= $node->safe_psql('postgres', q{SELECT weir.wait_for(timeout => '40 s')});
}
is($comes, 't' x 10, 'a worker that is asked to end comes again');
is($node->safe_psql('postgres', 'SELECT n FROM v'), '10', 'each goes on where the last has stopped');
is(trace_becomes('none'), 'none', 'when it has got through, nothing tells of its start');

SKIP:
{
	skip 'a build without debug points', 8
		if $node->psql('postgres', 'SHOW weir.debug_points') != 0;

	# it does not get through, but another process crashes
	my $log = $node->logfile;
	$node->safe_psql('postgres', q{ALTER SYSTEM SET weir.debug_points = 'batch-start=error'});
	$node->reload;
	$node->safe_psql('postgres', 'INSERT INTO s VALUES (2)');
	$node->safe_psql('postgres', q{SELECT pg_terminate_backend(pid, 60000) FROM weir.workers});
	for my $i (1 .. 3)
	{
		weir_patiently($node, 'SELECT 1 / (count(*) = 1)::int FROM weir.workers');
		is(trace_becomes('\d+'), "1\n", 'the start of a worker is told');
		my $from = -s $log;
		my $pid = weir_patiently($node, q{SELECT pid FROM pg_stat_activity WHERE backend_type = 'background writer'});
		die "no pid: $pid" unless $pid =~ /^\d+$/;
		kill('KILL', $pid);
		for (1 .. 2400)
		{
			last if substr(slurp_file($log), $from) =~ /accept connections/;
			usleep(50_000);
		}
	}
	weir_patiently($node, 'SELECT 1');
	unlike(slurp_file($log), qr/has crashed the server/, 'it is not blamed for the crash of others');

	# now it crashes
	weir_patiently($node, q{ALTER SYSTEM SET weir.debug_points = 'batch-start=kill'});
	weir_patiently($node, 'SELECT pg_reload_conf()');
	for (1 .. 1200)
	{
		last if slurp_file($log) =~ /has crashed the server 4 times/;
		usleep(50_000);
	}
	like(slurp_file($log), qr/has crashed the server 3 times.*is started in 1 sec.*has crashed the server 4 times.*is started in 2 sec/s,
		'it is started ever more seldom');
	weir_patiently($node, 'ALTER SYSTEM RESET weir.debug_points');
	weir_patiently($node, 'SELECT pg_reload_conf()');
	is(weir_patiently($node, q{SELECT weir.wait_for(timeout => '120 s')}), 't', 'in the end it gets through');
	is(weir_patiently($node, 'SELECT n FROM v'), '11', 'and nothing is lost');
	is(trace_becomes('none'), 'none', 'and all is forgotten');
}

# In the servers of pg_upgrade nothing of ours runs: at its end each process that
# does has a line in the log.
$node->stop;
my @pg_ctl = ('pg_ctl', '-s', '-w', '-D', $node->data_dir, '-l', $node->logfile);
my $before = -s $node->logfile;
system_or_bail(@pg_ctl, '-o', '-b', 'start');
is($node->safe_psql('postgres', 'SELECT n FROM v'), $node->safe_psql('postgres', 'SELECT count(*) FROM s'), 'views can be read there');
system_or_bail(@pg_ctl, 'stop');
unlike(slurp_file($node->logfile, $before), qr/pg_weir (launcher|worker)/, 'but nobody maintains them');

done_testing();
