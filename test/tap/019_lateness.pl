# A changed allowed_lateness counts from one position on, whoever dies when.

use strict;
use warnings;

use lib 'test/tap';
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(usleep);
use WeirTest;

my $node = weir_node('lateness');

plan skip_all => 'a build without debug points'
  if $node->psql('postgres', 'SHOW weir.debug_points') != 0;

sub set_points
{
	$node->safe_psql('postgres', "ALTER SYSTEM SET weir.debug_points = '$_[0]'");
	$node->reload;
}

sub insert
{
	$node->safe_psql('postgres', "INSERT INTO s VALUES ('2026-01-01 00:00:00Z'::timestamptz + interval '$_[0] s')");
}

$node->safe_psql(
	'postgres', q{
	ALTER SYSTEM SET weir.checkpoint_interval = '1h';
	CREATE TABLE s (ts timestamptz) USING stream WITH (event_time = ts, watermark_delay = '0');
	CREATE MATERIALIZED VIEW v USING continuous AS
		SELECT window_start, count(*) AS n FROM s, tumble(ts, '10 s') GROUP BY window_start;});
$node->reload;
weir_wait($node);
insert($_) for 1, 25;
weir_wait($node);
$node->safe_psql('postgres', 'SELECT weir.checkpoint()');

# the checkpoint that has to write it down does not come to pass
my $pid = $node->safe_psql('postgres', 'SELECT pid FROM weir.workers');
set_points('checkpoint-start=fatal');
$node->safe_psql('postgres', q{ALTER MATERIALIZED VIEW v SET (allowed_lateness = '1 hour')});
ok($node->poll_query_until('postgres', "SELECT NOT EXISTS (SELECT FROM pg_stat_activity WHERE pid = $pid)"),
	'the worker dies');
insert($_) for 105, 35;
# so do its successors, before they have judged anything
my $died = 0;
for (1 .. 2400)
{
	$died = () = slurp_file($node->logfile) =~ /exited with exit code 1/g;
	last if $died > 2;
	usleep(50_000);
}
cmp_ok($died, '>', 2, 'so do others');
set_points('');
weir_wait($node, 'another goes on');
insert(45);
weir_wait($node);
is($node->safe_psql('postgres', q{
	SELECT string_agg(extract(epoch FROM window_start - '2026-01-01 00:00:00Z')::int || ':' || n, ' ' ORDER BY window_start) FROM v}),
	'0:1 20:1 30:1 40:1 100:1', 'all since the change is judged by it');
is($node->safe_psql('postgres', 'SELECT late FROM weir.views'), '0', 'nothing was late');
# what was final before is final
insert(5);
weir_wait($node);
is($node->safe_psql('postgres', 'SELECT late FROM weir.views'), '1', 'but for what was final before');

$node->stop;
done_testing();
