# Events that a view leaves out cost its worker nothing that stays.

use strict;
use warnings;

use lib 'test/tap';
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use WeirTest;

my $node = weir_node('skip');

$node->safe_psql(
	'postgres', q{
	CREATE TABLE s (v int, note text, ts timestamptz) USING stream;
	CREATE MATERIALIZED VIEW v USING continuous WITH (on_error = skip) AS
		SELECT sum(1 / v) AS n, count(*) AS rows FROM s;
	CREATE PROCEDURE fail(events int) LANGUAGE plpgsql AS $$
	BEGIN
		FOR i IN 1 .. events LOOP
			INSERT INTO s VALUES (0, 'bad', now());
			COMMIT;
		END LOOP;
	END $$});

# What the worker has in the context that is never reset.
sub memory_used
{
	my $log = $node->logfile;
	my $from = -s $log;

	$node->safe_psql('postgres', 'SELECT pg_log_backend_memory_contexts(worker_pid) FROM weir.views');
	$node->poll_query_until('postgres', "SELECT pg_read_file('$log', $from, 1000000) ~ 'Grand total'")
		or die 'the worker has not told of its memory';
	substr(slurp_file($log), $from) =~ /TopMemoryContext: .*; (\d+) used/ or die;
	return $1;
}

$node->safe_psql('postgres', 'CALL fail(50)');
weir_wait($node, 'some are left out');
my $before = memory_used();
$node->safe_psql('postgres', 'CALL fail(200)');
weir_wait($node, 'more are left out');
cmp_ok(memory_used() - $before, '<', 200 * 1024, 'memory does not grow with them');
$node->safe_psql('postgres', 'SELECT weir.checkpoint()');
is($node->safe_psql('postgres', 'SELECT count(*), count(event) FROM weir.errors'), '250|250', 'all are told');
is($node->safe_psql('postgres', 'SELECT rows FROM v'), 0, 'none is counted');

weir_log_is_clean($node);
$node->stop;
done_testing();
