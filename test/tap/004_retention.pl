# What retention has let go of leaves its watermark behind, and what views have
# counted, across restarts and crashes.

use strict;
use warnings;

use lib 'test/tap';
use IPC::Run;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use WeirTest;

my $node = weir_node('retention');

$node->safe_psql(
	'postgres', q{
	CREATE TABLE s (k int, ts timestamptz NOT NULL)
		USING stream WITH (event_time = ts, watermark_delay = '0', retention = '1 us');
	CREATE MATERIALIZED VIEW v USING continuous AS
		SELECT window_start, count(*) AS n FROM s, tumble(ts, '1 minute') GROUP BY window_start;
	CREATE MATERIALIZED VIEW g USING continuous AS SELECT count(*) AS n FROM s});

my $hour = 0;
for my $mode ('fast', 'immediate')
{
	$node->safe_psql('postgres', qq{
		INSERT INTO s SELECT i, '2026-01-01 00:00Z'::timestamptz + interval '$hour hours' + i * interval '1 s'
			FROM generate_series(1, 3600) i});
	$hour++;
	weir_wait($node, "$mode: caught up");
	# twice: the record that holds the watermark stays
	$node->safe_psql('postgres', 'SELECT weir.checkpoint()') for (1, 2);
	is($node->safe_psql('postgres', 'SELECT count(*) FROM s'), '0', "$mode: log is empty");
	my $w = $node->safe_psql('postgres', q{SELECT weir.watermark('s')});
	my $size = $node->safe_psql('postgres', q{SELECT bytes_in FROM weir.streams});
	$node->safe_psql('postgres', 'SELECT weir.checkpoint()');
	is($node->safe_psql('postgres', q{SELECT bytes_in FROM weir.streams}), $size,
		"$mode: an idle stream is not written to");

	$node->stop($mode);
	$node->start;
	is($node->safe_psql('postgres', q{SELECT weir.watermark('s')}), $w, "$mode: watermark is back");
	is($node->safe_psql('postgres', 'SELECT sum(n) FROM v'), 3600 * $hour, "$mode: windows");
	is($node->safe_psql('postgres', 'SELECT n FROM g'), 3600 * $hour + $hour - 1, "$mode: all");

	# one that is late by it, for views old and new
	$node->safe_psql('postgres', q{INSERT INTO s VALUES (0, '2026-01-01 00:00:00Z')});
	$node->safe_psql('postgres', qq{
		CREATE MATERIALIZED VIEW new_$mode USING continuous AS
			SELECT window_start, count(*) AS n FROM s, tumble(ts, '1 minute') GROUP BY window_start});
	weir_wait($node, "$mode: late one is consumed");
	is($node->safe_psql('postgres', 'SELECT sum(n) FROM v'), 3600 * $hour, "$mode: and late");
}
# what is gone makes room for what comes
for (1 .. 8)
{
	$node->safe_psql('postgres', q{
		INSERT INTO s SELECT i, '2026-01-02 00:00Z'::timestamptz + i * interval '1 ms' FROM generate_series(1, 50000) i});
	weir_wait($node, 'consumed');
	$node->safe_psql('postgres', 'SELECT weir.checkpoint()') for (1, 2);
	$node->safe_psql('postgres', 'VACUUM s');
}
my ($in, $size) = split /\|/, $node->safe_psql('postgres', 'SELECT bytes_in, log_bytes FROM weir.streams');
cmp_ok($size, '<', $in / 3, "space is used again: $size bytes after $in");

# By arrival, whatever the time of the event: what is older than the limit goes,
# though its time is the newest, and what is younger stays, though its time is
# the oldest.  If it took longer to look than the limit, nothing can be said;
# then again, with more time.
$node->safe_psql(
	'postgres', q{
	CREATE TABLE aged (k int, ts timestamptz NOT NULL) USING stream WITH (event_time = ts, retention = '1 hour');
	CREATE MATERIALIZED VIEW ages USING continuous AS SELECT count(*) AS n, sum(k) AS s FROM aged;
	INSERT INTO aged VALUES (0, '2000-01-01')});
weir_wait($node);
$node->safe_psql('postgres', 'SELECT weir.checkpoint()') for (1, 2);
is($node->safe_psql('postgres', 'SELECT count(*) FROM aged'), '1', 'an old time is no old arrival');
my ($rows, $sum, $seen) = (1, 0, 0);
for (my $limit = 2; $limit <= 64 && !$seen; $limit *= 2)
{
	$node->safe_psql('postgres', qq{
		ALTER TABLE aged SET (retention = '1 hour');
		INSERT INTO aged SELECT $limit, '2026-01-01'::timestamptz + $limit * interval '1 s' FROM generate_series(1, 10)});
	my $after = $node->safe_psql('postgres', 'SELECT clock_timestamp()');
	ok($node->poll_query_until('postgres', "SELECT clock_timestamp() - '$after' > '$limit s'"), "$limit s: they are old");
	my $young = $node->safe_psql('postgres', 'SELECT clock_timestamp()');
	$node->safe_psql('postgres', qq{
		INSERT INTO aged SELECT $limit + 1, '2000-01-01' FROM generate_series(1, 10);
		SELECT weir.wait_for('ages');
		ALTER TABLE aged SET (retention = '$limit s');
		SELECT weir.checkpoint()});
	my ($n, $too_late) = split /\|/, $node->safe_psql('postgres',
		"SELECT count(*) FILTER (WHERE k = $limit + 1), clock_timestamp() - '$young' >= '$limit s' FROM aged");
	$rows += 20;
	$sum += 10 * (2 * $limit + 1);
	is($n, '10', "$limit s: the young ones stay") if $too_late eq 'f';
	# the worker looks again and again
	ok($node->poll_query_until('postgres', "SELECT count(*) = 0 FROM aged WHERE k <= $limit"), "$limit s: the old ones go");
	($n, $too_late) = split /\|/, $node->safe_psql('postgres',
		"SELECT count(*) FILTER (WHERE k = $limit + 1), clock_timestamp() - '$young' >= '$limit s' FROM aged");
	next if $too_late eq 't';
	is($n, '10', "$limit s: and the young ones are still there");
	$seen = 1;
}
ok($seen, 'both were seen at one time');
is($node->safe_psql('postgres', 'SELECT n, s FROM ages'), "$rows|$sum", 'the view has counted all');

# What goes is not always what has the lowest number.  A view that has counted
# what was left behind knows when that goes, too.
my $knows = sub {
	my ($view, $rows, $what) = @_;
	my (undef, undef, $error) = $node->psql('postgres', "REFRESH MATERIALIZED VIEW $view");

	like($error, qr/^psql:<stdin>:1: ERROR:  cannot refresh continuous view/, "$what: the view knows what has gone");
	is($node->safe_psql('postgres', "SELECT n FROM $view"), $rows, "$what: and keeps it");
};

# A transaction that has its number is still committing, and the stream has no
# view.  Retention has been there once what is older has gone from elsewhere,
# twice.
$node->safe_psql('postgres', q{
	CREATE TABLE low (k int) USING stream WITH (retention = '1 us');
	CREATE TABLE mark_1 (k int) USING stream;
	CREATE TABLE mark_2 (k int) USING stream;
	INSERT INTO mark_1 VALUES (1);
	INSERT INTO mark_2 VALUES (1);
	BEGIN;
	SELECT pg_advisory_xact_lock(1465207378, hashtext('stream_pre_commit'));
	PREPARE TRANSACTION 'holder'});
my $sql = q{SET weir.debug_points = 'stream_pre_commit=wait'; INSERT INTO low VALUES (1)};
my $writer = IPC::Run::start([ 'psql', '-XqAt', '-d', $node->connstr('postgres'), '-c', $sql ],
	'>', \my $out, '2>', \my $err);
$node->poll_query_until('postgres', q{
	SELECT count(*) = 1 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted});
$node->safe_psql('postgres', 'INSERT INTO low VALUES (2)');
for (1, 2)
{
	$node->safe_psql('postgres', "ALTER TABLE mark_$_ SET (retention = '1 us')");
	ok($node->poll_query_until('postgres', "SELECT count(*) = 0 FROM mark_$_"), "retention looks, $_");
}
is($node->safe_psql('postgres', 'SELECT count(*) FROM low'), '0', 'the higher number goes');
$node->safe_psql('postgres', q{ALTER TABLE low SET (retention = '1 day')});
$node->safe_psql('postgres', q{ROLLBACK PREPARED 'holder'});
ok(IPC::Run::finish($writer), 'the lower one commits') or diag($err);
$node->safe_psql('postgres', q{
	CREATE MATERIALIZED VIEW lows USING continuous AS SELECT count(*) AS n FROM low;
	SELECT weir.wait_for('lows');
	SELECT weir.checkpoint();
	ALTER TABLE low SET (retention = '1 us')});
ok($node->poll_query_until('postgres', 'SELECT count(*) = 0 FROM low'), 'and goes');
$knows->('lows', 1, 'a commit that hangs');

# What one of two views cannot write to disk, as somebody has locked it, stays for
# it, whatever the other has written.
$node->safe_psql('postgres', q{
	CREATE TABLE two (k int) USING stream WITH (retention = '1 us');
	CREATE TABLE mark_3 (k int) USING stream;
	CREATE TABLE mark_4 (k int) USING stream;
	INSERT INTO mark_3 VALUES (1);
	INSERT INTO mark_4 VALUES (1);
	CREATE MATERIALIZED VIEW two_a USING continuous AS SELECT count(*) AS n FROM two;
	CREATE MATERIALIZED VIEW two_b USING continuous AS SELECT sum(k) AS n FROM two;
	SELECT weir.wait_for('two_a'), weir.wait_for('two_b'), weir.checkpoint();
	BEGIN;
	ALTER MATERIALIZED VIEW two_b RENAME COLUMN n TO m;
	PREPARE TRANSACTION 'holder';
	INSERT INTO two VALUES (1);
	SELECT weir.wait_for('two_a')});
ok($node->poll_query_until('postgres', q{
	SELECT a.position > b.position FROM weir.view_position a, weir.view_position b
	WHERE a.view = 'two_a'::regclass AND b.view = 'two_b'::regclass}), 'one has it on disk');
for (3, 4)
{
	$node->safe_psql('postgres', "ALTER TABLE mark_$_ SET (retention = '1 us')");
	ok($node->poll_query_until('postgres', "SELECT count(*) = 0 FROM mark_$_"), "retention looks, $_");
}
is($node->safe_psql('postgres', 'SELECT count(*) FROM two'), '1', 'what the other does not have stays');
$node->safe_psql('postgres', q{ROLLBACK PREPARED 'holder'});
ok($node->poll_query_until('postgres', 'SELECT count(*) = 0 FROM two'), 'until it has');

# A clock that was put back over a restart: what arrived before looks young.
$node->safe_psql('postgres', q{
	CREATE TABLE back (k int) USING stream WITH (retention = '1 hour');
	ALTER SYSTEM SET weir.debug_clock = 7200;
	SELECT pg_reload_conf()});
$node->poll_query_until('postgres', q{SELECT current_setting('weir.debug_clock') = '2h'});
$node->safe_psql('postgres', q{INSERT INTO back VALUES (1)});
$node->safe_psql('postgres', q{ALTER SYSTEM RESET weir.debug_clock});
$node->restart;
$node->safe_psql('postgres', q{
	INSERT INTO back VALUES (2);
	ALTER TABLE back SET (retention = '1 us')});
ok($node->poll_query_until('postgres', 'SELECT sum(k) = 1 FROM back'), 'what came after goes before it');
$node->safe_psql('postgres', q{
	CREATE MATERIALIZED VIEW backs USING continuous AS SELECT count(*) AS n FROM back;
	SELECT weir.wait_for('backs');
	SELECT weir.checkpoint()});
is($node->safe_psql('postgres', 'SELECT n FROM backs'), '1', 'a new view counts it');
$node->append_conf('postgresql.conf', 'weir.debug_clock = 7200');
$node->reload;
ok($node->poll_query_until('postgres', 'SELECT count(*) = 0 FROM back'), 'old by this clock, too');
$knows->('backs', 1, 'a clock put back');

weir_log_is_clean($node);
$node->stop;
done_testing();
