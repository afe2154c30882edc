# What the tests of standbys share: a stream whose events are never late, views,
# and what these must show.  use lib 'test/tap'; use WeirStandby;
package WeirStandby;

use strict;
use warnings;

use Exporter 'import';
use PostgreSQL::Test::Cluster;
use Test::More;
use WeirTest;

our @EXPORT = qw(first_primary values_of insert_ids exact make_standby
  $lost $doubled);

# Rows that views did not show and should, and those that they should not.
our ($lost, $doubled) = (0, 0);

my %query = (
	per_key => 'SELECT k, count(*), sum(x), sum(id) FROM s GROUP BY k',
	per_minute => 'SELECT window_start, window_end, count(*), sum(x)'
	  . " FROM s, tumble(ts, '1 minute') GROUP BY window_start, window_end",
	sessions => 'SELECT k, window_start, window_end, count(*)'
	  . " FROM s, session(ts, '2 s') GROUP BY k, window_start, window_end",
	total => 'SELECT count(*), sum(x) FROM s');

# A server with the stream s and its views, to copy standbys from.
sub first_primary
{
	my ($name) = @_;
	my $node = weir_node($name, conf => <<'CONF');
weir.checkpoint_interval = '1h'
max_standby_streaming_delay = -1
wal_log_hints = on
wal_keep_size = '512MB'
wal_receiver_timeout = '5s'
wal_retrieve_retry_interval = '100ms'
restart_after_crash = off
CONF

	$node->safe_psql('postgres', <<'SQL');
CREATE TABLE s (id bigint, k int, x int, ts timestamptz NOT NULL) USING stream
  WITH (event_time = ts, watermark_delay = '10 s');
CREATE MATERIALIZED VIEW per_key USING continuous AS
  SELECT k, count(*) AS n, sum(x) AS x, sum(id) AS ids FROM s GROUP BY k;
CREATE MATERIALIZED VIEW per_minute USING continuous AS
  SELECT window_start, window_end, count(*) AS n, sum(x) AS x
  FROM s, tumble(ts, '1 minute') GROUP BY window_start, window_end;
CREATE MATERIALIZED VIEW sessions USING continuous AS
  SELECT k, window_start, window_end, count(*) AS n
  FROM s, session(ts, '2 s') GROUP BY k, window_start, window_end;
CREATE MATERIALIZED VIEW total USING continuous AS
  SELECT count(*) AS n, sum(x) AS x FROM s;
SQL
	return $node;
}

# Event times that grow with the id, so that nothing is late.
sub values_of
{
	my ($id, $time) = @_;
	return join(', ', map { "($id, "
			  . (($id * 7 + $_) % 13) . ', '
			  . ($_ ? -($id % 1000) : $id % 1000)
			  . ", '2026-01-01 00:00Z'::timestamptz + $time * interval '0.1 s')" }
		  (0, 1));
}

# Transactions of two rows each, in one session.
sub insert_ids
{
	my ($node, @ids) = @_;
	$node->safe_psql('postgres',
		join('', map { 'INSERT INTO s VALUES ' . values_of($_, $_) . ";\n" } @ids));
}

# All that is committed is in each view, once.
sub exact
{
	my ($node, $what) = @_;
	weir_wait($node, "$what: caught up");
	for my $view (sort keys %query)
	{
		my ($missing, $more) = split /\|/, $node->safe_psql('postgres', qq{
			SELECT (SELECT count(*) FROM (($query{$view}) EXCEPT ALL TABLE $view) x),
				(SELECT count(*) FROM (TABLE $view EXCEPT ALL ($query{$view})) x)});

		is("$missing, $more", '0, 0', "$what: $view, rows missing, rows too many");
		$lost    += $missing;
		$doubled += $more;
	}
}

sub make_standby
{
	my ($from, $name, $conf) = @_;

	return weir_copy($from, $name, has_streaming => 1,
		conf => "synchronous_standby_names = ''\n$conf");
}

1;
