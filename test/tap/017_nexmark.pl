# Nexmark bids with disorder of up to 3 seconds: hop 10 s/2 s, tumble 10 s and
# session 10 s, against the query run as a batch (a delay of 3 seconds lets
# nothing be late) and against the naive model, event by event (a delay of 1
# second, so that much is).  WEIR_SEED replays.
use strict;
use warnings;

use lib 'test/tap';

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::Local qw(timegm);
use WeirModel;
use WeirTest;

my $nexgen = $ENV{WEIR_NEXGEN} // 'test/tools/nexgen';
plan skip_all => 'test/tools/nexgen is not built' unless -x $nexgen;
my $seed = $ENV{WEIR_SEED} // int(rand(1_000_000));
note("WEIR_SEED=$seed");
srand($seed);

my $events = 4000;
my $node   = weir_node('nexmark');
my $csv    = $node->basedir . '/bids.csv';
system_or_bail($nexgen, '--seed', $seed, '--rows', $events, '--events', 2 * $events,
	'--rate', 40, '--table', 'bid', '--narrow', '--out-of-order-ms', 3000,
	'--out-of-order-prob', 0.3, '--start-ts', '2026-01-01 00:00:00', '--out', $csv);

my %query = (
	hop     => "hop(ts, '2 s', '10 s')",
	tumble  => "tumble(ts, '10 s')",
	session => "session(ts, '10 s')");
my %model = (
	hop     => { kind => 'hop',     slide => 2_000_000, size => 10_000_000 },
	tumble  => { kind => 'tumble',  size  => 10_000_000 },
	session => { kind => 'session', gap   => 10_000_000 });
my $columns = 'k, window_start, window_end, count(*) AS n, sum(price) AS s, max(price) AS m';

$node->safe_psql('postgres', <<'SQL');
CREATE TABLE bids3 (auction bigint, k bigint, price bigint, ts timestamptz NOT NULL)
  USING stream WITH (event_time = ts, watermark_delay = '3 seconds');
CREATE TABLE bids1 (LIKE bids3) USING stream WITH (event_time = ts, watermark_delay = '1 second');
SQL
foreach my $stream ('bids3', 'bids1')
{
	$node->safe_psql('postgres',
		"CREATE MATERIALIZED VIEW ${stream}_$_ USING continuous AS SELECT $columns FROM $stream, $query{$_}"
		  . ' GROUP BY k, window_start, window_end')
	  foreach sort keys %query;
}

# transactions of 1 to 60 bids; the bidders become 40
my $base = timegm(0, 0, 0, 1, 0, 126);
my %judge = map { $_ => WeirModel->new(%{ $model{$_} }, delay => 1_000_000) } keys %model;
my ($sql, @rows) = ('');

sub end_transaction
{
	return if !@rows;
	foreach my $stream ('bids3', 'bids1')
	{
		$sql .= "INSERT INTO $stream VALUES "
		  . join(', ', map { "(0, $_->{key}, $_->{value}, '$_->{text}')" } @rows) . ";\n";
	}
	$_->transaction([@rows]) foreach values %judge;
	@rows = ();
}

foreach my $line (split /\n/, slurp_file($csv))
{
	my ($auction, $bidder, $price, $text) = split /,/, $line;
	my ($y, $mo, $d, $h, $mi, $s, $f) =
	  $text =~ /^"?(\d+)-(\d+)-(\d+)[ T](\d+):(\d+):(\d+)(?:\.(\d+))?/
	  or BAIL_OUT("not a timestamp: $text");
	my $us = (timegm($s, $mi, $h, $d, $mo - 1, $y - 1900) - $base) * 1_000_000
	  + substr(($f // '') . '000000', 0, 6);

	$text = sprintf('%s-%s-%s %s:%s:%s.%06d+00', $y, $mo, $d, $h, $mi, $s, substr(($f // '') . '000000', 0, 6));
	push @rows, { ts => $us, key => $bidder % 40, value => $price, text => $text };
	end_transaction() if rand() < 1 / 30;
}
end_transaction();
$node->safe_psql('postgres', $sql);
is($node->safe_psql('postgres', "SELECT weir.wait_for(NULL, '120 s')"), 't', 'all is consumed');

sub compare
{
	my ($when) = @_;

	foreach my $kind (sort keys %query)
	{
		my $batch = "SELECT $columns FROM bids3, $query{$kind} GROUP BY k, window_start, window_end";
		is( $node->safe_psql('postgres',
				"SELECT (SELECT count(*) FROM (TABLE bids3_$kind EXCEPT ALL ($batch)) x),"
				  . " (SELECT count(*) FROM (($batch) EXCEPT ALL TABLE bids3_$kind) x),"
				  . " (SELECT late + late_partial FROM weir.views WHERE view = 'bids3_$kind'::regclass)"),
			'0|0|0', "$kind: as the batch query $when");

		my @want = map { join('|', @{$_}{qw(key start end count sum max)}) } @{ $judge{$kind}->rows };
		my $got = $node->safe_psql('postgres',
			"SELECT k, (extract(epoch FROM window_start) * 1000000)::bigint - $base * 1000000::bigint,"
			  . " (extract(epoch FROM window_end) * 1000000)::bigint - $base * 1000000::bigint, n, s, m FROM bids1_$kind");
		is(join("\n", sort split /\n/, $got), join("\n", sort @want), "$kind: as the model $when");
		is( $node->safe_psql('postgres', "SELECT late, late_partial FROM weir.views WHERE view = 'bids1_$kind'::regclass"),
			$judge{$kind}->late . '|' . $judge{$kind}->late_partial,
			"$kind: late as in the model $when");
	}
}
cmp_ok($judge{tumble}->late, '>', 0, 'something is late');
compare('live');
$node->safe_psql('postgres', 'SELECT weir.checkpoint()');
compare('after a checkpoint');
$node->stop('immediate');
$node->start;
is($node->safe_psql('postgres', "SELECT weir.wait_for(NULL, '120 s')"), 't', 'it comes back');
compare('after a crash');
$node->stop;
done_testing();
