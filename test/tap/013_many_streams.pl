# More streams than shared memory keeps notes of: those without a place are
# waited for, and guarded against TRUNCATE, like the others.

use strict;
use warnings;

use lib 'test/tap';
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use WeirTest;
use Time::HiRes qw(usleep);

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

sub gets_place
{
	my ($stream) = @_;

	for (1 .. 1200)
	{
		$node->safe_psql('postgres', "INSERT INTO $stream VALUES (1)");
		return 1
		  if $node->safe_psql('postgres', "SELECT rows_in > 0 FROM weir.streams WHERE stream = '$stream'::regclass") eq 't';
		usleep(100_000);
	}
	return 0;
}

# Places of streams that are gone are free again: here of those that were rolled
# back, dropped by a prepared transaction, or are heaps now.  A stream with a place
# tells how many rows it got.
$node->safe_psql('postgres', q{
	CREATE PROCEDURE roll_back(n int) LANGUAGE plpgsql AS $$
	BEGIN
		FOR i IN 1 .. n LOOP
			BEGIN
				EXECUTE format('CREATE TABLE u%s (x int) USING stream', i);
				EXECUTE format('INSERT INTO u%s VALUES (1)', i);
				RAISE 'away';
			EXCEPTION WHEN raise_exception THEN NULL;
			END;
		END LOOP;
	END $$;
	SELECT format('DROP TABLE IF EXISTS s%s', i) FROM generate_series(2, 512) i \gexec
	CALL roll_back(300);
	DO $$
	BEGIN
		FOR i IN 1 .. 211 LOOP
			EXECUTE format('CREATE TABLE t%s (x int) USING stream', i);
			EXECUTE format('INSERT INTO t%s VALUES (1)', i);
		END LOOP;
	END $$;
	BEGIN;
	DO $$ BEGIN FOR i IN 1 .. 100 LOOP EXECUTE format('DROP TABLE t%s', i); END LOOP; END $$;
	PREPARE TRANSACTION 'drops';
	COMMIT PREPARED 'drops';
	DO $$ BEGIN FOR i IN 101 .. 211 LOOP EXECUTE format('ALTER TABLE t%s SET ACCESS METHOD heap', i); END LOOP; END $$;
	CREATE TABLE last (x int) USING stream});
gets_place('last') or die;
pass('places of what is gone are free again');

# Not those of streams that only their own transaction sees yet.
my $session = $node->background_psql('postgres');
$session->query_safe('BEGIN; CREATE TABLE fresh (x int) USING stream; INSERT INTO fresh VALUES (1)');
$node->safe_psql('postgres', q{
	CALL roll_back(510);
	CREATE TABLE later (x int) USING stream});
gets_place('later') or die;
$session->query_safe('COMMIT');
is($node->safe_psql('postgres', q{SELECT rows_in FROM weir.streams WHERE stream = 'fresh'::regclass}), '1',
	'what is not committed yet keeps its place');
$session->quit;
weir_log_is_clean($node);
$node->stop;
done_testing();
