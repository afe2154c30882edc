# Little state memory: final windows make room for new ones, as soon as they are
# in the heap, even while a snapshot from before is still held; and that
# snapshot goes on to see each window once.
use strict;
use warnings;

use lib 'test/tap';

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use WeirTest;

my $node = PostgreSQL::Test::Cluster->new('memory');
$node->init;
$node->append_conf('postgresql.conf', <<"CONF");
shared_preload_libraries = 'pg_weir'
fsync = off
weir.state_memory = '16MB'
weir.checkpoint_interval = '1h'
CONF
$node->start;
plan skip_all => 'needs background_psql' if !$node->can('background_psql');
$node->safe_psql('postgres', <<'SQL');
CREATE EXTENSION pg_weir;
CREATE TABLE s (k int, v bigint, ts timestamptz NOT NULL) USING stream
  WITH (event_time = ts, watermark_delay = '1 minute');
CREATE MATERIALIZED VIEW tum USING continuous AS
  SELECT window_start, k, count(*) AS n FROM s, tumble(ts, '1 minute') GROUP BY window_start, k;
CREATE MATERIALIZED VIEW hop USING continuous AS
  SELECT window_start, count(*) AS n FROM s, hop(ts, '1 minute', '3 minutes') GROUP BY window_start;
CREATE PROCEDURE feed(from_n int, to_n int) LANGUAGE plpgsql AS $$
BEGIN
  FOR i IN from_n..to_n LOOP
    INSERT INTO s SELECT j % 2, j, timestamptz '2016-01-01' + j * interval '30 s'
      FROM generate_series(i * 1000, i * 1000 + 999) j;
    COMMIT;
  END LOOP;
END $$;
SQL
my %batch = (
	tum => "SELECT window_start, k, count(*) AS n FROM s, tumble(ts, '1 minute') GROUP BY window_start, k",
	hop => "SELECT window_start, count(*) AS n FROM s, hop(ts, '1 minute', '3 minutes') GROUP BY window_start");

sub differences
{
	my ($view) = @_;
	return "SELECT (SELECT count(*) FROM (TABLE $view EXCEPT ALL ($batch{$view})) x)"
	  . " + (SELECT count(*) FROM (($batch{$view}) EXCEPT ALL TABLE $view) x)";
}

$node->safe_psql('postgres', 'CALL feed(0, 2)');
is($node->safe_psql('postgres', "SELECT weir.wait_for(NULL, '120 s')"), 't', 'views run');

my $old = $node->background_psql('postgres');
$old->query_safe('BEGIN ISOLATION LEVEL REPEATABLE READ');
is($old->query_safe('SELECT sum(n) FROM tum'), '3000', 'an old snapshot sees all');

# ten times what fits
$node->safe_psql('postgres', 'CALL feed(3, 120)');
is($node->safe_psql('postgres', "SELECT weir.wait_for(NULL, '120 s')"), 't', 'nobody waits for the old snapshot');
is($node->safe_psql('postgres', "SELECT string_agg(state, ',') FROM weir.views"), 'running,running', 'no view has failed');
foreach my $view (sort keys %batch)
{
	is($node->safe_psql('postgres', differences($view)), '0', "$view: exact");
	is( $old->query_safe("SELECT count(*) - count(DISTINCT (window_start, "
			  . ($view eq 'tum' ? 'k' : '1')
			  . ")), sum(n) FROM $view"),
		$view eq 'tum' ? '0|121000' : '0|363000',
		"$view: the old snapshot has each window once");
}
is( $old->query_safe("SELECT count(*), sum(n) FROM tum WHERE window_start = timestamptz '2016-01-02' AND k = 1"),
	'1|1', 'a key is found by the old snapshot');
$old->query_safe('COMMIT');
$old->quit;
$node->safe_psql('postgres', 'CALL feed(121, 140)');
is($node->safe_psql('postgres', "SELECT weir.wait_for(NULL, '120 s')"), 't', 'it goes on');
is($node->safe_psql('postgres', differences($_)), '0', "$_: exact in the end") foreach sort keys %batch;
$node->stop('immediate');
$node->start;
is($node->safe_psql('postgres', "SELECT weir.wait_for(NULL, '120 s')"), 't', 'replayed in as little memory');
is($node->safe_psql('postgres', differences($_)), '0', "$_: exact after a crash") foreach sort keys %batch;
$node->stop;
done_testing();
