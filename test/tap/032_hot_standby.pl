# A standby that must not fall behind (max_standby_streaming_delay = 0, no
# feedback), while the primary closes windows, trims the log, vacuums, truncates,
# rebuilds and drops: whoever reads there sees one state, or gets a clean error.
# WEIR_SECONDS: for how long (20).
use strict;
use warnings;

use lib 'test/tap';

use IPC::Run;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);
use WeirTest;

my $seconds = $ENV{WEIR_SECONDS} // 20;
my $primary = weir_node('primary', conf => <<'CONF');
weir.checkpoint_interval = '200ms'
autovacuum = off
CONF
$primary->safe_psql('postgres', <<'SQL');
CREATE TABLE s (id bigint, k int, x int, pad text, ts timestamptz NOT NULL) USING stream
  WITH (event_time = ts, watermark_delay = '2 s', retention_size = '500kB');
CREATE TABLE kept (LIKE s);
CREATE MATERIALIZED VIEW per_key USING continuous AS
  SELECT k, count(*) AS n, sum(x) AS x FROM s GROUP BY k;
CREATE MATERIALIZED VIEW per_second USING continuous WITH (retention = '2 minutes') AS
  SELECT window_start, window_end, count(*) AS n, sum(x) AS x
  FROM s, tumble(ts, '1 s') GROUP BY window_start, window_end;
CREATE MATERIALIZED VIEW hopping USING continuous AS
  SELECT window_start, window_end, count(*) AS n, sum(x) AS x
  FROM s, hop(ts, '1 s', '3 s') GROUP BY window_start, window_end;
CREATE INDEX ON per_second (window_start);
CREATE TABLE t (k int, x int) USING stream;
CREATE MATERIALIZED VIEW odd USING continuous AS SELECT k, count(*) AS n, sum(x) AS x FROM t GROUP BY k;
SQL
my $standby = weir_copy($primary, 'reads', has_streaming => 1, conf => <<'CONF');
max_standby_streaming_delay = 0
hot_standby_feedback = off
CONF

# Transactions of two events that cancel; a second of events in each.
my $dir = PostgreSQL::Test::Utils::tempdir();
my $pairs = sub {
	my ($from, $n) = @_;
	return "WITH new AS (INSERT INTO s SELECT $from + i / 2, i % 14 / 2, (1 - i % 2 * 2) * i / 2 * 7,"
	  . " repeat('p', 500), '2026-01-01Z'::timestamptz + ($from + i / 2) * interval '20 ms'"
	  . " FROM generate_series(0, 2 * $n - 1) i RETURNING *) INSERT INTO kept SELECT * FROM new;\n";
};

# What each reads again and again: in one snapshot whole transactions, no window
# twice, and the same a moment later.
my $state = "SELECT (SELECT md5(coalesce(string_agg(v::text, '' ORDER BY v), '')) FROM per_second v) || '/' ||"
  . " (SELECT md5(coalesce(string_agg(v::text, '' ORDER BY v), '')) FROM hopping v) || '/' ||"
  . " (SELECT coalesce(sum(n), 0) FROM per_key) || '/' || (SELECT count(*) FROM s) AS state";
my $read = <<"SQL";
\\set was_state ''
\\set is_state ''
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT 'x', (SELECT coalesce(sum(x), 0) FROM per_key), (SELECT coalesce(sum(x), 0) FROM per_second),
  (SELECT coalesce(sum(x), 0) FROM hopping), (SELECT coalesce(sum(x), 0) FROM s);
SELECT 'twice', count(*) FROM (SELECT FROM per_second GROUP BY window_start HAVING count(*) > 1) w;
SELECT 'odd', coalesce(sum(x), 0) FROM odd;
$state \\gset was_
SELECT FROM pg_sleep(0.1);
$state \\gset is_
SELECT 'moved', (:'was_state' <> :'is_state')::int;
COMMIT;
SQL
append_to_file("$dir/read", $read x 20);
# a session that ends by a conflict has a successor
my $connstr = $standby->connstr('postgres');
my @readers = map {
	my %r = (out => "$dir/out$_", err => "$dir/err$_");
	$r{h} = IPC::Run::start(
		[ 'sh', '-c', "while [ ! -e $dir/stop ]; do psql -XqAt -d \"$connstr\" -f $dir/read; done" ],
		'>', $r{out}, '2>', $r{err});
	\%r;
} 1 .. 3;
my $until = time + $seconds;
my ($id, $round) = (0, 0);
while (time < $until)
{
	$primary->safe_psql('postgres', join('', map { $id += 50; $pairs->($id - 50, 50) } 1 .. 5));
	$primary->safe_psql('postgres', 'SELECT weir.wait_for(); SELECT weir.checkpoint()');
	$primary->safe_psql('postgres', 'VACUUM s; VACUUM per_second; VACUUM weir.view_state, weir.view_position, weir.stream_trim');
	$round++;
	$primary->safe_psql('postgres', 'INSERT INTO t VALUES (1, 1), (1, -1); SELECT weir.wait_for(); TRUNCATE t') if $round % 3 == 0;
	$primary->safe_psql('postgres', 'REFRESH MATERIALIZED VIEW odd WITH NO DATA; REFRESH MATERIALIZED VIEW odd') if $round % 7 == 5;
	$primary->safe_psql('postgres', 'DROP MATERIALIZED VIEW odd; CREATE MATERIALIZED VIEW odd USING continuous AS'
		. ' SELECT k, count(*) AS n, sum(x) AS x FROM t GROUP BY k') if $round % 7 == 6;
}
append_to_file("$dir/stop", '');
$_->{h}->finish for @readers;
my @rows   = map { split /\n/, slurp_file($_->{out}) } @readers;
my @errors = map { slurp_file($_->{err}) =~ /((?:ERROR|FATAL): .*)/g } @readers;
my %seen;
$seen{ (split /\|/)[0] }++ for @rows;
my %conflicts;
$conflicts{$_}++ for @errors;
note(join ', ', "$round rounds", map { "$seen{$_} of $_" } sort keys %seen);
note("$conflicts{$_} times: $_") for sort keys %conflicts;
cmp_ok($seen{$_} // 0, '>', 0, "$_ was read") for qw(x twice odd moved);
is_deeply([ grep { !/^(x\|0\|0\|0\|0|twice\|0|odd\|0|moved\|0)$/ } @rows ], [], 'each read was of one state');
is_deeply([ grep { !/conflict with recovery|current transaction is aborted|"odd" (does not exist|has not been populated)/ } @errors ], [], 'no error but conflicts with recovery');
cmp_ok($primary->safe_psql('postgres', 'SELECT count(*) FROM s'), '<',
	$primary->safe_psql('postgres', 'SELECT count(*) FROM kept'), 'retention was at work');

# in the end both show the same
$primary->safe_psql('postgres', 'SELECT weir.wait_for(); SELECT weir.checkpoint()');
$primary->wait_for_catchup($standby);
is( $standby->safe_psql('postgres', $state), $primary->safe_psql('postgres', $state),
	'standby and primary agree');
is($primary->safe_psql('postgres', "SELECT count(*) FROM (SELECT k, count(*), sum(x) FROM kept GROUP BY k EXCEPT ALL TABLE per_key) d"),
	'0', 'and are exact');
weir_log_is_clean($_) for $primary, $standby;
$standby->stop;
$primary->stop;
done_testing();
