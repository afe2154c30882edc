# Years of history in one COPY, that is in one transaction: an event a minute,
# every minute a window of its own, out of order by half an hour.  A million
# windows and more open and close in a state memory for some ten thousand; it
# and the worker's own memory stay bounded, every view is exact, and the speed
# of the first tenth and of the last is told.
#
# WEIR_HISTORY: how many years, default 2, at most 25; 10 take three minutes.
use strict;
use warnings;

use lib 'test/tap';

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use WeirTest;

my $state_memory = 4 << 20;
my $years   = $ENV{WEIR_HISTORY} || 2;
my $minutes = int($years * 365.25) * 24 * 60;
my $node    = weir_node('history', conf => <<"CONF");
weir.state_memory = '@{[$state_memory >> 20]}MB'
weir.checkpoint_interval = '1h'
work_mem = '64MB'
max_wal_size = '4GB'
CONF
my $sql = sub { $node->safe_psql('postgres', join '; ', @_) };

# Half a kilobyte for a window: they would need a hundred times the memory.
cmp_ok($minutes * 512, '>', 100 * $state_memory, "$minutes windows do not fit");

my %view = (
	tum => q{SELECT window_start, count(*) AS n, sum(x) AS s FROM s, tumble(ts, '1 minute') GROUP BY window_start},
	hop => q{SELECT window_end, k, count(*) AS n, max(x) AS m FROM s, hop(ts, '10 minutes', '30 minutes') GROUP BY window_end, k},
	ses => q{SELECT window_start, window_end, k, count(*) AS n, min(x) AS m FROM s, session(ts, '10 minutes') GROUP BY window_start, window_end, k});

# A key comes for five minutes, and then not for half an hour.  Each half hour
# and two minutes (these divide a day) comes backwards.
my $file = $node->basedir . '/history.csv';
$sql->(
	q{CREATE TABLE s (ts timestamptz NOT NULL, k int, x int) USING stream
		WITH (event_time = ts, watermark_delay = '1 hour')},
	(map { "CREATE MATERIALIZED VIEW $_ USING continuous AS $view{$_}" } sort keys %view),
	qq{COPY (SELECT timestamptz '2000-01-01' + (j # 31) * interval '1 minute', (j # 31) / 5 % 7, j
		FROM generate_series(0, $minutes - 1) j) TO '$file' (FORMAT csv)});
weir_wait($node);

# Memory of its own, in MB; shared memory does not count.
my $own_memory = sub {
	my ($pid) = @_;
	my $status = -r "/proc/$pid/status" ? slurp_file("/proc/$pid/status") : '';
	return $status =~ /^RssAnon:\s+(\d+) kB/m ? $1 / 1024 : 0;
};
my $worker = $sql->(q{SELECT DISTINCT worker_pid FROM weir.views});
my $own_before = $own_memory->($worker);

# What it is like while the worker goes through it.  Readers are to see nothing
# of it until the end, but the heap of a view grows.
$sql->("COPY s FROM '$file' (FORMAT csv)");
unlink($file);
my ($done, $most_state, $most_own, $samples) = ('f', 0, 0, 0);
my %grown = map { $_ => [] } keys %view;
while ($done ne 't')
{
	($done, my $state, my @sizes) = split /\|/, $sql->(
		q{SELECT weir.wait_for(timeout => '20 ms'), (SELECT sum(state_bytes) FROM weir.views),
			extract(epoch FROM clock_timestamp()), } . join(', ', map { "pg_relation_size('$_')" } sort keys %view));
	my $now = shift @sizes;
	push @{ $grown{$_} }, [ $now, shift @sizes ] foreach sort keys %view;
	$most_state = $state if $most_state < $state;
	my $own = $own_memory->($worker);
	$most_own = $own if $most_own < $own;
	$samples++;
	last if $sql->(q{SELECT count(*) FROM weir.views WHERE state <> 'running'}) > 0;
}
is($sql->(q{SELECT DISTINCT state, error IS NULL FROM weir.views}), 'running|t', 'all go through');
is($sql->(q{SELECT DISTINCT worker_pid FROM weir.views}), $worker, 'by the same worker');
cmp_ok($samples, '>', 20, 'looked at meanwhile');
cmp_ok($most_state, '<=', $state_memory, 'state was bounded');
cmp_ok($most_own, '<', $own_before + 192, 'and so was the memory of the worker');
note(sprintf('at most %.1f MB of state and %.1f MB of the worker, %.1f before, in %d looks',
		$most_state / 2**20, $most_own, $own_before, $samples));

# When a view's heap was as large as a part of what it is now.
sub time_of
{
	my ($seen, $part) = @_;
	my $size = $seen->[-1][1] * $part;
	my $i = 0;

	$i++ while $seen->[ $i + 1 ][1] < $size;
	my ($from, $to) = @{$seen}[ $i, $i + 1 ];
	return $from->[0] + ($to->[0] - $from->[0]) * ($size - $from->[1]) / (($to->[1] - $from->[1]) || 1);
}
foreach my $view (sort keys %view)
{
	my $seen = $grown{$view};
	# from when the worker turned to it
	shift @$seen while @$seen > 2 && $seen->[1][1] == 0;
	next if $seen->[0][1] > $seen->[-1][1] / 10;
	my %speed = map {
		my ($from, $to) = split /-/;
		my $time = time_of($seen, $to) - time_of($seen, $from);
		"$from-$to" => $time > 0 ? $minutes * ($to - $from) / $time : 0
	} ('0-0.1', '0.9-1', '0-1');
	note(sprintf('%s: %.0f events/s; in the first tenth %.0f, in the last %.0f', $view, @speed{ '0-1', '0-0.1', '0.9-1' }));
}

is( $sql->(q{SELECT sum(events_in), sum(late), sum(late_partial) FROM weir.views}),
	join('|', 3 * $minutes, 0, 0), 'every event once, none late');
is($sql->('SELECT count(*), sum(n) FROM tum'), "$minutes|$minutes", 'a window each minute');
is($sql->('SELECT sum(n) FROM ses'), $minutes, 'every event in a session');
cmp_ok($sql->('SELECT count(*) FROM ses'), '==', $minutes / 5 + ($minutes % 5 > 0), 'a session every five minutes');

foreach my $view (sort keys %view)
{
	weir_same($node, $view, $view{$view});
}
$sql->('SELECT weir.checkpoint()');
foreach my $view (sort keys %view)
{
	# an event at its very end would still join a session
	my $passed = $view eq 'tum' ? q{window_start + interval '1 minute' <=} : $view eq 'ses' ? 'window_end <' : 'window_end <=';
	is( $sql->("SELECT final_rows FROM weir.views WHERE view = '$view'::regclass"),
		$sql->("SELECT count(*) FROM ($view{$view}) q WHERE $passed weir.watermark('s')"),
		"$view: all that W has passed is final");
}
cmp_ok($sql->(q{SELECT sum(state_bytes) FROM weir.views}), '<', 1 << 20, 'memory is free again');

# it goes on from there, and W closes the rest
$sql->(q{INSERT INTO s SELECT max(ts) + interval '1 day', 1, 1 FROM s});
weir_wait($node, 'one more event');
weir_same($node, $_, $view{$_}, "$_ goes on") foreach sort keys %view;

weir_log_is_clean($node);
$node->stop;
done_testing();
