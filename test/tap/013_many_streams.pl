# More streams than shared memory keeps notes of: those without a place are
# waited for, and guarded against TRUNCATE, like the others.

use strict;
use warnings;

use lib 'test/tap';
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use WeirTest;

my $node = weir_node('many_streams');

$node->safe_psql(
	'postgres', q{
	CREATE EXTENSION IF NOT EXISTS pg_weir;
	DO $$
	BEGIN
		FOR i IN 1 .. 513 LOOP
			EXECUTE format('CREATE TABLE s%s (x int) USING stream', i);
			EXECUTE format('INSERT INTO s%s VALUES (1)', i);
		END LOOP;
	END $$;
	CREATE MATERIALIZED VIEW v USING continuous AS SELECT count(*) AS n FROM s513});
is($node->safe_psql('postgres', q{SELECT weir.wait_for('v', '120 s')}), 't', 'built');
is($node->safe_psql('postgres', 'SELECT n FROM v'), '1', 'its first row');

$node->safe_psql('postgres', q{SELECT weir.pause('v')});
$node->safe_psql('postgres', 'INSERT INTO s513 VALUES (2)');
my ($rc, $out, $err) = $node->psql('postgres', 'TRUNCATE s513');
like($err, qr/has not consumed all of its events/, 'TRUNCATE is refused');

$node->safe_psql('postgres', q{SELECT weir.resume('v')});
is($node->safe_psql('postgres', q{SELECT weir.wait_for('v', '120 s')}), 't', 'resumed');
is($node->safe_psql('postgres', 'SELECT n FROM v'), '2', 'and waited for');
$node->safe_psql('postgres', 'TRUNCATE s513');
is($node->safe_psql('postgres', 'SELECT n FROM v'), '2', 'TRUNCATE once all is consumed');

# one that gets a place later
$node->safe_psql('postgres', 'DROP TABLE s1');
$node->safe_psql('postgres', 'INSERT INTO s513 VALUES (3)');
is($node->safe_psql('postgres', q{SELECT weir.wait_for('v', '120 s')}), 't', 'with a place');
is($node->safe_psql('postgres', 'SELECT n FROM v'), '3', 'all three');
weir_log_is_clean($node);
$node->stop;
done_testing();
