# A transaction with more windows than fit into weir.state_memory goes through
# in parts, if they are final after it: exactly, whatever kind of window; with
# late events and events that fail; across errors, cancels and deaths.
use strict;
use warnings;

use lib 'test/tap';

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(usleep);
use WeirTest;

my $node = PostgreSQL::Test::Cluster->new('parts');
$node->init;
$node->append_conf('postgresql.conf', <<"CONF");
shared_preload_libraries = 'pg_weir'
restart_after_crash = on
fsync = off
weir.state_memory = '4MB'
weir.checkpoint_interval = '1h'
CONF
$node->start;
$node->safe_psql('postgres', <<'SQL');
CREATE EXTENSION pg_weir;
CREATE TABLE s (k int, v int, ts timestamptz NOT NULL) USING stream
  WITH (event_time = ts, watermark_delay = '1 minute');
CREATE TABLE twin (LIKE s);
-- some 40 s apart for each key, up to 90 s out of order
CREATE PROCEDURE feed(from_n int, to_n int, sort text) LANGUAGE plpgsql AS $$
BEGIN
  CREATE TEMP TABLE new AS
    SELECT j % 3 AS k, j AS v,
      timestamptz '2016-01-01' + j * interval '13 s' + (j * 7 % 91) * interval '1 s' AS ts
    FROM generate_series(from_n, to_n) j;
  EXECUTE 'INSERT INTO s SELECT * FROM new ORDER BY ' || sort;
  INSERT INTO twin TABLE new;
  DROP TABLE new;
END $$;
SQL
my %batch = (
	tum => "SELECT window_start, k, count(*) AS n, sum(v) FROM %s, tumble(ts, '20 s') GROUP BY window_start, k",
	hop => "SELECT window_start, count(*) AS n, sum(v) FROM %s, hop(ts, '10 s', '30 s') GROUP BY window_start",
	cum => "SELECT window_start, window_end, count(*) AS n, sum(v) FROM %s, cumulate(ts, '10 s', '30 s') GROUP BY window_start, window_end",
	ses => "SELECT k, window_start, window_end, count(*) AS n, sum(v) FROM %s, session(ts, '10 s') GROUP BY k, window_start, window_end",
	tot => "SELECT k, count(*) AS n, sum(v) FROM %s GROUP BY k");

sub with_query
{
	my ($view, $rel) = @_;
	return sprintf($batch{$view}, $rel);
}

sub exact
{
	my ($what, @views) = @_;
	foreach my $view (@views)
	{
		weir_same($node, $view, with_query($view, 'twin'), "$view: $what");
	}
	is( $node->safe_psql('postgres',
			"SELECT string_agg(DISTINCT state, ',') FROM weir.views"),
		'running', "$what: no view has failed");
}

foreach my $view (sort keys %batch)
{
	$node->safe_psql('postgres',
		"CREATE MATERIALIZED VIEW $view USING continuous AS " . with_query($view, 's'));
}
# of these the twin does not know: rows count in the order of the log
my $pairs = 'SELECT k, window_start, window_end, count(*) AS n, min(v), max(v)'
  . ' FROM s, count_window(2) GROUP BY k, window_start, window_end';
$node->safe_psql('postgres', "CREATE MATERIALIZED VIEW cnt USING continuous AS $pairs");

my @views = sort keys %batch;
$node->safe_psql('postgres', 'CALL feed(0, 999, $$ts$$)');
weir_wait($node);
exact('at first', @views);
my $offset = -s $node->logfile;
$node->safe_psql('postgres', 'CALL feed(1000, 39999, $$ts$$)');
weir_wait($node, 'ten times what fits goes through');
exact('history in order', @views);
is( $node->safe_psql('postgres', 'SELECT max(state_bytes) < 2000000 FROM weir.views'),
	't', 'and memory is free again');
weir_same($node, 'cnt', $pairs, 'cnt: history in order');

# as they come, out of order by so much as the delay bounds
$node->safe_psql('postgres', 'CALL feed(40000, 79999, $$v$$)');
weir_wait($node, 'out of order');
exact('history out of order', @views);
$node->stop('immediate');
$node->start;
weir_wait($node, 'after a crash');
exact('after a crash', @views);
$node->safe_psql('postgres', 'CALL feed(80000, 80999, $$v$$)');
weir_wait($node);
exact('and on', @views);

# late events come first in it
$node->safe_psql('postgres', <<'SQL');
DROP MATERIALIZED VIEW tum, hop, cum, ses, tot, cnt;
CREATE MATERIALIZED VIEW lat USING continuous WITH (late_table = late, emit = final) AS
  SELECT window_start, k, count(*) AS n FROM s, tumble(ts, '20 s') GROUP BY window_start, k;
SQL
weir_wait($node, 'a view is built from that history');
my $late_before = $node->safe_psql('postgres', 'SELECT count(*) FROM late');
$node->safe_psql('postgres', <<'SQL');
BEGIN;
INSERT INTO s SELECT 1, j, timestamptz '2016-01-01' + j * interval '1 s' FROM generate_series(1, 1000) j;
CALL feed(81000, 119999, 'ts');
COMMIT;
SQL
weir_wait($node);
$node->safe_psql('postgres', "SELECT weir.checkpoint()");
is( $node->safe_psql('postgres', 'SELECT count(*) FROM late') - $late_before,
	1000, 'late events are kept once');
weir_same($node, 'lat',
	"SELECT window_start, k, count(*) FROM twin, tumble(ts, '20 s')"
	  . " WHERE window_end <= weir.watermark('s') GROUP BY window_start, k",
	'late events do not count');
$node->safe_psql('postgres', 'DROP MATERIALIZED VIEW lat');

# events that fail
$node->safe_psql('postgres', <<'SQL');
SELECT weir.advance_watermark('s', now());
CREATE TABLE e (k int, ts timestamptz NOT NULL) USING stream WITH (event_time = ts, watermark_delay = '0');
CREATE FUNCTION check_k(k int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS $$
BEGIN IF k < 0 THEN RAISE EXCEPTION 'k is %', k; END IF; RETURN k; END $$;
CREATE MATERIALIZED VIEW skips USING continuous WITH (on_error = skip) AS
  SELECT window_start, count(check_k(k)) AS n FROM e, tumble(ts, '1 minute') GROUP BY window_start;
CREATE MATERIALIZED VIEW stops USING continuous AS
  SELECT window_start, count(check_k(k)) AS n FROM e, tumble(ts, '1 minute') GROUP BY window_start;
INSERT INTO e SELECT CASE WHEN j IN (20000, 30000) THEN -j ELSE j END,
  timestamptz '2016-01-01' + j * interval '1 minute' FROM generate_series(0, 39999) j;
SQL
ok($node->poll_query_until('postgres', "SELECT state = 'failed' FROM weir.views WHERE view = 'stops'::regclass"),
	'a view stops at an event that fails');
is($node->safe_psql('postgres', "SELECT weir.wait_for('skips', '120 s')"), 't', 'another leaves it out');
$node->safe_psql('postgres', "SELECT weir.checkpoint()");
is( $node->safe_psql('postgres',
		q{SELECT view, event->>'k', message FROM weir.errors ORDER BY view::text, id}),
	"skips|-20000|k is -20000\nskips|-30000|k is -30000\nstops|-20000|k is -20000",
	'the events are known');
my $good = "SELECT window_start, count(k) FROM e, tumble(ts, '1 minute') %s GROUP BY window_start";
weir_same($node, 'skips', sprintf($good, 'WHERE k >= 0'), 'the others count');
is($node->safe_psql('postgres', 'SELECT count(*) FROM stops'), '0', 'nothing of it shows where it failed');
$node->safe_psql('postgres', <<'SQL');
CREATE OR REPLACE FUNCTION check_k(k int) RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT k';
SELECT weir.resume('stops');
SQL
is($node->safe_psql('postgres', "SELECT weir.wait_for('stops', '120 s')"), 't', 'it goes on');
weir_same($node, 'stops', sprintf($good, ''), 'and has lost nothing');

# in no order there is no window that is complete before the end
$node->safe_psql('postgres', <<'SQL');
DROP MATERIALIZED VIEW skips;
INSERT INTO e SELECT j, timestamptz '2017-01-01' + (j * 7919 % 40000) * interval '1 minute' FROM generate_series(0, 39999) j;
SQL
ok($node->poll_query_until('postgres', "SELECT state = 'failed' FROM weir.views WHERE view = 'stops'::regclass"),
	'history in no order needs the memory');
like($node->safe_psql('postgres', "SELECT error FROM weir.views WHERE view = 'stops'::regclass"),
	qr/state memory of continuous views is exhausted/, 'and says so');
weir_same($node, 'stops', sprintf($good, "WHERE ts < '2017-01-01'"), 'it shows what it had');
$node->safe_psql('postgres', "ALTER SYSTEM SET weir.state_memory = '64MB'");
$node->restart;
$node->safe_psql('postgres', "SELECT weir.resume('stops')");
is($node->safe_psql('postgres', "SELECT weir.wait_for('stops', '120 s')"), 't', 'with more it goes through');
weir_same($node, 'stops', sprintf($good, ''), 'exactly');

# errors and deaths on the way
if ($node->psql('postgres', 'SHOW weir.debug_points') != 0)
{
	$node->stop;
	done_testing();
	exit;
}
$node->safe_psql('postgres', <<'SQL');
ALTER SYSTEM SET weir.state_memory = '4MB';
DROP TABLE e CASCADE;
DROP TABLE s CASCADE;
CREATE TABLE d (k int, ts timestamptz NOT NULL) USING stream WITH (event_time = ts, watermark_delay = '1 hour');
CREATE MATERIALIZED VIEW dv USING continuous AS
  SELECT window_start, count(*) AS n, sum(k) FROM d, tumble(ts, '1 minute') GROUP BY window_start;
CREATE MATERIALIZED VIEW ds USING continuous AS
  SELECT k, window_start, window_end, count(*) AS n FROM d, session(ts, '10 s') GROUP BY k, window_start, window_end;
SQL
$node->restart;

my %hit = (
	error => qr/debug point "[^"]*" raised an error/,
	fatal => qr/debug point "[^"]*" ended the process/,
	kill  => qr/was terminated by signal 9/);
my $insert = "INSERT INTO d SELECT j % 5, timestamptz '2015-01-01' + j * interval '1 min'";

# a snapshot that does not see what has gone to the heap, when the state is read
# anew from the checkpoint
$node->safe_psql('postgres', "$insert FROM generate_series(0, 999) j");
weir_wait($node);
my $old = $node->background_psql('postgres');
my $count = 'SELECT count(*), count(DISTINCT window_start), sum(n) FROM dv';
is($old->query_safe("BEGIN ISOLATION LEVEL REPEATABLE READ; $count"), '1000|1000|1000', 'an old snapshot');
$node->safe_psql('postgres', 'SELECT weir.checkpoint()');
is($old->query_safe($count), '1000|1000|1000', 'it has all after a checkpoint');
$node->safe_psql('postgres', $_)
  foreach "ALTER SYSTEM SET weir.debug_points = 'part-through=error\@3'", 'SELECT pg_reload_conf()',
  "$insert FROM generate_series(1000, 20999) j";
ok($node->poll_query_until('postgres', "SELECT state = 'failed' FROM weir.views WHERE view = 'dv'::regclass"),
	'the third part fails');
is($old->query_safe($count), '1000|1000|1000', 'and when the state is read anew');
$node->safe_psql('postgres', $_)
  foreach 'ALTER SYSTEM RESET weir.debug_points', 'SELECT pg_reload_conf()';
ok(weir_go_on($node), 'it goes through');
is($old->query_safe($count), '21000|21000|21000', 'and then each window once');
$old->query_safe('COMMIT');
$old->quit;

# a view whose history ends with such a transaction is built, and rebuilt
$node->safe_psql('postgres', 'CREATE MATERIALIZED VIEW db USING continuous AS'
	  . " SELECT window_start, count(*) AS n FROM d, tumble(ts, '1 minute') GROUP BY window_start");
foreach my $what ('built', 'rebuilt')
{
	is($node->safe_psql('postgres', "SELECT weir.wait_for('db', '120 s')"), 't', $what);
	is($node->safe_psql('postgres', "SELECT state FROM weir.views WHERE view = 'db'::regclass"), 'running', "$what: it runs");
	$node->safe_psql('postgres', 'REFRESH MATERIALIZED VIEW db') if $what eq 'built';
}
$node->safe_psql('postgres', 'DROP MATERIALIZED VIEW db');

my $before = $node->safe_psql('postgres', 'SELECT count(*) FROM d');
my $round = 0;
foreach my $case (
	'part-through error 2', 'part-through fatal 2',
	'part-through kill 2', 'checkpoint-stamped error 2',
	'state-publish kill 3',
	'checkpoint-position fatal 1', 'checkpoint-commit error 1',
	'checkpoint-commit fatal 1', 'checkpoint-commit kill 1',
	'checkpoint-committed error 1', 'checkpoint-committed fatal 1')
{
	my ($point, $action, $nth) = split(/ /, $case);
	$offset = -s $node->logfile;
	# what is not checkpointed would be before the transaction begins
	weir_patiently($node, 'SELECT weir.wait_for(); SELECT weir.checkpoint()');
	weir_patiently($node, "ALTER SYSTEM SET weir.debug_points = '$point=$action\@$nth'");
	weir_patiently($node, 'SELECT pg_reload_conf()');
	$round++;
	weir_try($node, "INSERT INTO d SELECT j % 5, timestamptz '2016-01-01' + (j + $round * 20000) * interval '1 min'"
		  . ' FROM generate_series(0, 19999) j');
	my $seen = 0;
	for (1 .. 1200)
	{
		$seen = substr(slurp_file($node->logfile), $offset) =~ $hit{$action};
		last if $seen;
		usleep(50_000);
	}
	ok($seen, "$point: $action happened");
	weir_patiently($node, 'ALTER SYSTEM RESET weir.debug_points');
	weir_patiently($node, 'SELECT pg_reload_conf()');
	ok(weir_go_on($node), "$point, $action: consumed");
	foreach my $view (qw(dv ds))
	{
		my $query = $view eq 'dv'
		  ? "SELECT window_start, count(*), sum(k) FROM d, tumble(ts, '1 minute') GROUP BY window_start"
		  : "SELECT k, window_start, window_end, count(*) FROM d, session(ts, '10 s') GROUP BY k, window_start, window_end";
		is( weir_patiently($node, "SELECT (SELECT count(*) FROM (TABLE $view EXCEPT ALL ($query)) x)"
				  . " + (SELECT count(*) FROM (($query) EXCEPT ALL TABLE $view) x)"),
			'0', "$point, $action: $view is exact");
	}
}
is(weir_patiently($node, 'SELECT count(*) FROM d'), $before + $round * 20000, 'the stream has what was acknowledged');
$node->stop;
done_testing();
