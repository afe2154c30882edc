# Late tables: each late event exactly once, whatever dies at whatever step of
# batch, checkpoint and swap; after a dump and restore; and more of them than
# fit into memory.  Needs debug points.
use strict;
use warnings;

use lib 'test/tap';

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(usleep);
use WeirTest;

my $node = PostgreSQL::Test::Cluster->new('late');
$node->init;
$node->append_conf('postgresql.conf', <<"CONF");
shared_preload_libraries = 'pg_weir'
restart_after_crash = on
fsync = off
weir.checkpoint_interval = '1h'
CONF
$node->start;
$node->safe_psql('postgres', 'CREATE EXTENSION pg_weir');
plan skip_all => 'a build without debug points'
  if $node->psql('postgres', 'SHOW weir.debug_points') != 0;

# x numbers the transactions, of which there is one at a time
$node->safe_psql('postgres', <<'SQL');
CREATE TABLE s (x int, k int, note text, ts timestamptz) USING stream
  WITH (event_time = ts, watermark_delay = '10 seconds');
CREATE MATERIALIZED VIEW win USING continuous WITH (late_table = win_late) AS
  SELECT window_start, k, count(*) AS n FROM s, tumble(ts, '1 minute')
  GROUP BY window_start, k;
CREATE MATERIALIZED VIEW odd USING continuous WITH (late_table = win_late,
    allowed_lateness = '1 minute', on_error = skip) AS
  SELECT window_start, sum(7 / (k - 100)) AS n FROM s, tumble(ts, '1 minute')
  WHERE k % 2 = 1 OR k = 100 GROUP BY window_start;
CREATE VIEW judged AS
  SELECT s.*, date_trunc('minute', ts) + interval '1 minute' AS we,
         coalesce(w.w, '-infinity') AS w
  FROM s JOIN (SELECT x, max(m) OVER (ORDER BY x
        ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) - interval '10 seconds' AS w
      FROM (SELECT x, max(ts) AS m FROM s GROUP BY x) m) w USING (x);
CREATE VIEW model AS
  SELECT x, k, note, ts, 'win'::regclass AS late_view, we, w FROM judged
  WHERE we <= w
  UNION ALL
  SELECT x, k, note, ts, 'odd', we, w FROM judged
  WHERE we + interval '1 minute' <= w AND (k % 2 = 1 OR k = 100);
CREATE VIEW got AS
  SELECT x, k, note, ts, late_view, window_end, watermark FROM win_late;
SQL

my $n = 0;
my $refreshed = 0; # which writes errors down once more

# SQL of a transaction: a minute's events, some for two and four minutes ago,
# one that makes a query fail.  It may be tried again: when the server goes
# down nobody knows whether it was through.
sub events
{
	$n++;
	return "INSERT INTO s SELECT * FROM (SELECT $n, i % 7, 'note ' || i,"
	  . " timestamptz '2026-01-01 00:00Z' + ($n - CASE i % 30 WHEN 3 THEN 2"
	  . ' WHEN 4 THEN 4 ELSE 0 END) * interval \'1 minute\''
	  . " + i % 50 * interval '1 second' FROM generate_series(1, 300) i"
	  . " UNION ALL SELECT $n, 100, NULL, timestamptz '2026-01-01 00:00Z'"
	  . " + $n * interval '1 minute') e"
	  . " WHERE NOT EXISTS (SELECT FROM s WHERE x = $n)";
}

sub wait_log
{
	my ($regex, $offset) = @_;
	for (1 .. 1200)
	{
		return 1 if substr(slurp_file($node->logfile), $offset) =~ $regex;
		usleep(50_000);
	}
	return 0;
}

my $differ = 'SELECT (SELECT count(*) FROM (TABLE got EXCEPT ALL TABLE model) x)'
  . ' + (SELECT count(*) FROM (TABLE model EXCEPT ALL TABLE got) x)';

sub exact
{
	my ($what) = @_;
	my $bad = '';

	$bad .= 'not consumed; ' if !weir_go_on($node);
	weir_patiently($node, 'SELECT weir.checkpoint()');
	my $rows = weir_patiently($node, $differ);
	$bad .= "$rows late rows differ; " if $rows ne '0';
	my $counted = weir_patiently($node, 'SELECT (SELECT sum(late) FROM weir.views)'
		  . ' - (SELECT count(*) FROM win_late)');
	$bad .= "counted and kept differ by $counted; " if $counted ne '0';
	my $errors = weir_patiently($node, 'SELECT (SELECT count(*) FROM weir.errors'
		  . " WHERE sqlstate = '22012') - (SELECT count(*) FROM s WHERE k = 100)");
	$bad .= "errors and failing events differ by $errors; " if $errors ne '0' && !$refreshed;
	my $n = weir_patiently($node, 'SELECT count(*) FROM ((TABLE win EXCEPT ALL'
		  . ' SELECT date_trunc(\'minute\', ts), k, count(*) FROM judged'
		  . ' WHERE we > w GROUP BY 1, 2) UNION ALL (SELECT'
		  . ' date_trunc(\'minute\', ts), k, count(*) FROM judged'
		  . ' WHERE we > w GROUP BY 1, 2 EXCEPT ALL TABLE win)) d');
	$bad .= "$n rows of the view differ; " if $n ne '0';
	is($bad, '', $what);
}

my %hit = (
	error => qr/debug point "[^"]*" raised an error/,
	fatal => qr/debug point "[^"]*" ended the process/,
	kill  => qr/was terminated by signal 9/);

weir_patiently($node, events()) for 1 .. 6;
exact('at first');
for my $point (
	'batch-folded',       'publish',
	'checkpoint-start',   'checkpoint-closed',
	'late-write',         'checkpoint-position',
	'checkpoint-commit',  'checkpoint-committed',
	'swap-locked',        'swap-commit',
	'swap-committed')
{
	for my $action ('error', 'fatal', 'kill')
	{
		my $offset = -s $node->logfile;

		# consumed and not written when the point comes
		weir_patiently($node, events());
		weir_patiently($node, "SELECT weir.wait_for(NULL, '120 s')");
		weir_patiently($node, "ALTER SYSTEM SET weir.debug_points = '$point=$action'");
		weir_patiently($node, 'SELECT pg_reload_conf()');
		weir_try($node, events());
		$refreshed = 1 if $point =~ /^swap/;
		weir_try($node, 'REFRESH MATERIALIZED VIEW win;'
			  . ' REFRESH MATERIALIZED VIEW odd')
		  if $point =~ /^swap/;
		weir_try($node, "SET statement_timeout = '3s'; SELECT weir.checkpoint()")
		  if $point =~ /^(checkpoint|late)/;
		ok(wait_log($hit{$action}, $offset), "$point: $action happened");
		weir_patiently($node, events());
		weir_patiently($node, 'ALTER SYSTEM RESET weir.debug_points');
		weir_patiently($node, 'SELECT pg_reload_conf()');
		exact("$point: exact after $action");
	}
}

# ---- more than memory holds, in one transaction and in several ----
$n++;
weir_patiently($node, "INSERT INTO s SELECT $n, i % 7, repeat('x', i % 300),"
	  . " timestamptz '2026-01-01 00:00Z' + i % 120 * interval '1 second'"
	  . ' FROM generate_series(1, 120000) i');
weir_patiently($node, "SELECT weir.wait_for(NULL, '120 s')");
for (1 .. 4)
{
	$n++;
	weir_patiently($node, "INSERT INTO s SELECT $n, i % 7, repeat('y', i % 3000),"
		  . " timestamptz '2026-01-01 00:00Z' + i % 120 * interval '1 second'"
		  . ' FROM generate_series(1, 3000) i');
}
exact('many late events');
weir_patiently($node, 'REFRESH MATERIALIZED VIEW win; REFRESH MATERIALIZED VIEW odd');
exact('many late events, after REFRESH');
is(weir_patiently($node, 'SELECT count(*) FROM weir.late_pending'),
	'0', 'nothing is left of the rebuilds');

# ---- locked against writing: nobody but the view waits ----
$node->safe_psql('postgres', 'CREATE TABLE other (k int) USING stream');
$node->safe_psql('postgres', 'CREATE MATERIALIZED VIEW others USING continuous'
	  . ' AS SELECT count(*) FROM other');
my $locker = $node->background_psql('postgres', on_error_die => 1)
  if $node->can('background_psql');
SKIP:
{
	skip 'no background_psql', 1 if !$locker;
	$locker->query_safe('BEGIN; LOCK TABLE win_late IN SHARE MODE');
	weir_patiently($node, events());
	weir_patiently($node, 'INSERT INTO other VALUES (1)');
	is(weir_patiently($node, "SELECT weir.wait_for('others'), weir.wait_for('win')"),
		't|t', 'views go on while the late table is locked');
	$locker->query_safe('COMMIT');
	$locker->quit;
}
exact('after the lock');

# ---- emit = final does not wait for the next checkpoint by the clock ----
$node->safe_psql('postgres', <<'SQL');
CREATE TABLE e (ts timestamptz) USING stream
  WITH (event_time = ts, watermark_delay = '0 s');
CREATE MATERIALIZED VIEW f USING continuous WITH (emit = final) AS
  SELECT window_end, count(*) AS n FROM e, tumble(ts, '1 minute')
  GROUP BY window_end;
SQL
for my $minute (1 .. 3)
{
	$node->safe_psql('postgres',
		"INSERT INTO e VALUES ('2026-01-01 00:0$minute:00Z')");
	$node->poll_query_until('postgres',
		'SELECT count(*) = ' . ($minute - 1) . ' FROM f');
	is($node->safe_psql('postgres', 'SELECT count(*) FROM f'),
		$minute - 1, "what became final at minute $minute shows");
}

# ---- dump and restore ----
$node->safe_psql('postgres', 'DROP TABLE other CASCADE');
my $dump = PostgreSQL::Test::Utils::tempdir() . '/dump.sql';
$node->command_ok(
	[ 'pg_dump', '-f', $dump, '-d', $node->connstr('postgres') ], 'pg_dump');
$node->safe_psql('postgres', 'CREATE DATABASE copy');
$node->command_ok(
	[   'psql', '-X', '-q', '-v', 'ON_ERROR_STOP=1', '-d',
		$node->connstr('copy'), '-f', $dump ],
	'restore');
$node->safe_psql('copy', 'SELECT weir.wait_for(); SELECT weir.checkpoint()');
is( $node->safe_psql('copy',
		'SELECT count(*) FROM (SELECT x, k, note, ts, late_view FROM got'
		  . ' EXCEPT ALL SELECT x, k, note, ts, late_view FROM model) d'),
	'0',
	'the restored views have replaced their late rows');
is($node->safe_psql('copy', 'SELECT count(*) FROM win_late'),
	$node->safe_psql('copy', 'SELECT sum(late) FROM weir.views'),
	'one for each event counted');
isnt(
	$node->psql('copy', 'DROP TABLE win_late'),
	0, 'the restored views depend on the restored table');

$node->stop;
done_testing();
