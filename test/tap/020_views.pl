# The views of two regression tests, with every kind of key, window and
# aggregate, survive stops and crashes: state that is loaded from blobs, and
# replay on top of it, give what the query gives.
use strict;
use warnings;

use lib 'test/tap';
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use WeirTest;

my $node = weir_node('views');

# the settings of the regression test: rows are compared as text
sub run
{
	my ($db, $sql) = @_;

	return $node->safe_psql($db, "SET timezone = 'UTC'; SET datestyle = 'ISO'; SET search_path = keys, agg, public; $sql");
}

sub compare_keys
{
	my ($what) = @_;

	like(run('keys', 'SELECT * FROM differences()'),
		qr/^\|\d+ views compared$/, "keys: nothing differs $what");
}

sub compare_aggregates
{
	my ($what) = @_;

	like(run('aggregates', 'SELECT * FROM differences(true)'),
		qr/^\|\d+ views compared$/, "aggregates: nothing differs $what");
	unlike(run('aggregates', q{
		SELECT * FROM zone_differences('Europe/Berlin', '^(t_month|z_day|z_hour|z_tumble)$');
		SELECT * FROM zone_differences('America/New_York', '^(z_named|z_week)$');
		SELECT * FROM zone_differences('UTC', '^(t_bin|t_tumble)$')}),
		qr/\|[1-9]/, "aggregates: nothing differs in other zones $what");
}

sub wait_and_compare
{
	my ($what) = @_;

	is(run($_, "SELECT weir.wait_for(timeout => '120 s')"), 't', "$_: views have caught up $what")
	  foreach qw(keys aggregates);
	run('aggregates', 'SELECT weir.checkpoint()');
	compare_keys($what);
	compare_aggregates($what);
}

foreach my $db (qw(keys aggregates))
{
	$node->safe_psql('postgres', "CREATE DATABASE $db");
	$node->safe_psql($db, 'CREATE EXTENSION pg_weir');
	$node->command_ok(
		[ 'psql', '-X', '-q', '-v', 'ON_ERROR_STOP=1', '-v', 'keep=1',
		  '-d', $node->connstr($db), '-f', "sql/$db.sql" ],
		"$db: views are made");
}
wait_and_compare('at first');

# a stop checkpoints; a crash leaves some to replay
run('keys', 'CALL feed(true, false)');
run('aggregates', 'SELECT feed(8), feed(9)');
$node->stop('fast');
$node->start;
wait_and_compare('after a stop');
run('keys', 'CALL feed(false, false)');
run('aggregates', 'SELECT feed(10)');
$node->stop('immediate');
$node->start;
wait_and_compare('after a crash');

# without workers everything is read from the checkpoint
$node->stop('fast');
$node->adjust_conf('postgresql.conf', 'max_worker_processes', '0');
$node->start;
compare_keys('without workers');
compare_aggregates('without workers');
$node->adjust_conf('postgresql.conf', 'max_worker_processes', '16');
$node->restart;

# paused is what stays paused
run('keys', 'SELECT weir.pause(view) FROM weir.views');
$node->stop('immediate');
$node->start;
compare_keys('when paused');
run('keys', 'SELECT weir.resume(view) FROM weir.views');
run('keys', 'CALL feed(true, false)');
wait_and_compare('after they were resumed');

weir_log_is_clean($node);
done_testing();
