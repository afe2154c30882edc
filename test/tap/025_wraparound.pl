# Transaction ids that wrap around, and frozen tables: a stream's chunks, a
# view's final and live rows and our own tables are what they were.
# WEIR_WRAPS: how many times they go round (1).
use strict;
use warnings;

use lib 'test/tap';

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use WeirTest;

my $node = weir_node('wraparound');
$node->append_conf('postgresql.conf', <<'CONF');
autovacuum = off
vacuum_freeze_min_age = 0
CONF
$node->restart;
$node->safe_psql('postgres', <<'SQL');
CREATE TABLE s (id bigint, k int, t text, ts timestamptz NOT NULL) USING stream
  WITH (event_time = ts, watermark_delay = '10 s');
CREATE MATERIALIZED VIEW per_key USING continuous AS
  SELECT k, count(*) AS n, sum(id) AS ids, max(length(t)) AS l FROM s GROUP BY k;
CREATE MATERIALIZED VIEW per_minute USING continuous AS
  SELECT window_start, window_end, k, count(*) AS n, sum(id) AS ids
  FROM s, tumble(ts, '1 minute') GROUP BY window_start, window_end, k;
CREATE MATERIALIZED VIEW sessions USING continuous AS
  SELECT k, window_start, window_end, count(*) AS n
  FROM s, session(ts, '2 s') GROUP BY k, window_start, window_end;
SQL
my %query = (
	per_key => 'SELECT k, count(*), sum(id), max(length(t)) FROM s GROUP BY k',
	per_minute => 'SELECT window_start, window_end, k, count(*), sum(id)'
	  . " FROM s, tumble(ts, '1 minute') GROUP BY window_start, window_end, k",
	sessions => 'SELECT k, window_start, window_end, count(*)'
	  . " FROM s, session(ts, '2 s') GROUP BY k, window_start, window_end");

my $minute = 0;

# One in ten is longer than a page, so that chunks have pieces.
sub events
{
	my ($more) = @_;
	return "INSERT INTO s SELECT $minute * 1000 + i, i % 7,"
	  . " repeat(md5(i::text), CASE WHEN i % 60 = 0 THEN 1000 ELSE 1 END),"
	  . " '2026-01-01 00:00Z'::timestamptz + " . $minute++ . " * interval '1 minute' + i * interval '0.1 s'"
	  . " FROM generate_series(1, 590) i;\n";
}

sub exact
{
	my ($what) = @_;
	weir_wait($node, "$what: caught up");
	weir_same($node, $_, $query{$_}, "$what: $_") for sort keys %query;
	is($node->safe_psql('postgres', 'SELECT sum(late) FROM weir.views'), '0', "$what: nothing late");
}

# Freeze all databases, so that the oldest xid is new and clog is cut.
sub freeze
{
	$node->safe_psql('template0', 'VACUUM FREEZE');
	$node->safe_psql($_, 'VACUUM FREEZE') for qw(template1 postgres);
	$node->safe_psql('postgres', 'CHECKPOINT');
}

# The next transaction gets this xid, less than 2^31 ahead; everything is frozen.
# Its page of clog must be there.
sub set_xid
{
	my ($epoch, $xid) = @_;
	my $oldest;

	freeze();
	$oldest = $node->safe_psql('postgres', 'SELECT datfrozenxid FROM pg_database ORDER BY age(datfrozenxid) DESC LIMIT 1');
	$node->stop;
	command_ok([ 'pg_resetwal', '-e', $epoch, '-x', $xid, '-u', $oldest, $node->data_dir ],
		"pg_resetwal to $epoch:$xid");
	# 32 pages of 8 kB, 4 transactions a byte
	my $segment = sprintf '%s/pg_xact/%04X', $node->data_dir, $xid / (32 * 8192 * 4);
	if (!-e $segment)
	{
		open(my $fh, '>', $segment) or die;
		binmode $fh;
		print $fh "\0" x (32 * 8192);
		close $fh;
	}
	$node->start;
	exact("xid $epoch:$xid");
	$node->safe_psql('postgres', events());
	exact("xid $epoch:$xid, and on");
}

$node->safe_psql('postgres', "UPDATE pg_database SET datallowconn = true WHERE datname = 'template0'");
$node->safe_psql('postgres', events()) for 1 .. 3;
exact('at first');

# committed after the freeze, adopted after the wrap
$node->safe_psql('postgres', "BEGIN; INSERT INTO s VALUES (1, 1, 'p', '2026-01-01 00:03Z'); PREPARE TRANSACTION 'p'");
$node->safe_psql('postgres', "COMMIT PREPARED 'p'");
exact('prepared');

for my $mode ('FREEZE', '(FREEZE, DISABLE_PAGE_SKIPPING)')
{
	$node->safe_psql('postgres', "VACUUM $mode s, per_key, per_minute, sessions, weir.view_state, weir.view_position, weir.view_wish, weir.stream_trim");
	exact("VACUUM $mode");
}
is($node->safe_psql('postgres', "SELECT bool_and(age(relfrozenxid) < 100) FROM pg_class WHERE relname IN ('s', 'per_minute')"),
	't', 'stream and view are frozen');

# a snapshot from before a window closed, while all around it is frozen
my $old = $node->background_psql('postgres');
my $minutes = 'SELECT count(*), sum(n), sum(ids) FROM per_minute WHERE window_start < \'2026-01-01 00:02Z\'';
$old->query_safe('BEGIN ISOLATION LEVEL REPEATABLE READ');
my $seen = $old->query_safe($minutes);
$node->safe_psql('postgres', events()) for 1 .. 2;
weir_wait($node);
$node->safe_psql('postgres', 'SELECT weir.checkpoint()');
freeze();
is($old->query_safe($minutes), $seen, 'an old snapshot: final rows once, frozen or not');
$old->query_safe('COMMIT');
is($old->query_safe($minutes), $seen, 'and a new one');
$old->quit;
exact('windows closed');

# Around the end of the 32 bits: windows open before it close after it.
set_xid(0, $_) for 2_000_000_000, 4_000_000_000, 4_294_966_000;
$node->safe_psql('postgres', "BEGIN; INSERT INTO s VALUES (2, 2, 'q', '2026-01-01 00:11Z'); PREPARE TRANSACTION 'q'");
my $before = $node->safe_psql('postgres', 'SELECT pg_current_xact_id()');
cmp_ok($before, '<', 2**32, "before: $before");
my $reader = $node->background_psql('postgres');
$reader->query_safe('BEGIN ISOLATION LEVEL REPEATABLE READ');
$minutes = 'SELECT count(*), sum(n), sum(ids) FROM per_minute';
$seen = $node->safe_psql('postgres', $minutes . " WHERE window_start < '2026-01-01 00:08Z'");
$reader->query_safe($minutes . " WHERE window_start < '2026-01-01 00:08Z'");
$node->safe_psql('postgres', "SELECT pg_current_xact_id();\n" x 1500);
my $after = $node->safe_psql('postgres', 'SELECT pg_current_xact_id()');
cmp_ok($after, '>', 2**32, "after: $after");
$node->safe_psql('postgres', events()) for 1 .. 3;
weir_wait($node);
$node->safe_psql('postgres', 'SELECT weir.checkpoint()');
is($reader->query_safe($minutes . " WHERE window_start < '2026-01-01 00:08Z'"), $seen,
	'a snapshot from before: each row of closed windows once');
$reader->query_safe('COMMIT');
$reader->quit;
exact('wrapped');
$node->safe_psql('postgres', "COMMIT PREPARED 'q'");
exact('wrapped, prepared before');
$node->stop('immediate');
$node->start;
exact('wrapped, after a crash');
freeze();
exact('wrapped and frozen');
$node->safe_psql('postgres', "CREATE MATERIALIZED VIEW anew USING continuous AS $query{per_key}; REFRESH MATERIALIZED VIEW per_minute");
weir_wait($node);
weir_same($node, 'anew', $query{per_key}, 'a new view reads chunks of both epochs');
exact('rebuilt');
$node->safe_psql('postgres', 'VACUUM FULL s');
exact('VACUUM FULL');

# half a circle on, and more: old xids look as if they were to come
set_xid(1, $_) for 2_000_000_000, 4_000_000_000;
for my $epoch (2 .. $ENV{WEIR_WRAPS} // 1)
{
	set_xid($epoch, $_ + int(rand(100_000_000))) for 1_200_000_000, 2_600_000_000, 4_000_000_000;
	$node->stop('immediate');
	$node->start;
	exact("epoch $epoch, after a crash");
}
$node->safe_psql('postgres', 'ALTER TABLE s SET (retention = \'1 us\')');
weir_wait($node);
my $sum = 'SELECT sum(n) FROM per_key';
my $all = $node->safe_psql('postgres', $sum);
$node->safe_psql('postgres', 'SELECT weir.checkpoint()') for 1, 2;
is($node->safe_psql('postgres', 'SELECT count(*) FROM s'), '0', 'retention takes chunks of all epochs');
is($node->safe_psql('postgres', $sum), $all, 'and no counts');
weir_log_is_clean($node);
$node->stop;
done_testing();
