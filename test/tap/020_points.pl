# A death or an error at every step of commit, batch, checkpoint, close and
# swap: whatever happens there, afterwards every view equals its query, and the
# stream holds what was acknowledged.  Needs debug points.
use strict;
use warnings;

use lib 'test/tap';

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(usleep);
use WeirTest;

my $node = PostgreSQL::Test::Cluster->new('points');
$node->init;
$node->append_conf('postgresql.conf', <<"CONF");
shared_preload_libraries = 'pg_weir'
restart_after_crash = on
fsync = off
max_prepared_transactions = 10
weir.checkpoint_interval = '1h'
CONF
$node->start;
$node->safe_psql('postgres', 'CREATE EXTENSION pg_weir');
plan skip_all => 'a build without debug points'
  if $node->psql('postgres', 'SHOW weir.debug_points') != 0;
$node->safe_psql('postgres', <<'SQL');
CREATE TABLE s (k int, x numeric, ts timestamptz) USING stream
  WITH (event_time = ts, watermark_delay = '10 seconds');
CREATE TABLE acked (n int);
CREATE MATERIALIZED VIEW live USING continuous AS
  SELECT k, count(*) AS n, sum(x) AS total FROM s GROUP BY k;
CREATE MATERIALIZED VIEW win USING continuous AS
  SELECT window_start, k, count(*) AS n, sum(x) AS total
  FROM s, tumble(ts, '1 minute') GROUP BY window_start, k;
CREATE INDEX ON win (window_start);
SQL
my %batch = (
	live => 'SELECT k, count(*), sum(x) FROM s GROUP BY k',
	win  => 'SELECT window_start, k, count(*), sum(x)'
	  . " FROM s, tumble(ts, '1 minute') GROUP BY window_start, k");

my $minute = 0;

# SQL of a transaction of 300 events in a minute of their own.
sub events
{
	$minute++;
	return "BEGIN;\nINSERT INTO s SELECT i % 7, i * 0.01,"
	  . " timestamptz '2026-01-01 00:00Z' + $minute * interval '1 minute'"
	  . " + i * interval '0.1 second' FROM generate_series(1, 150) i;\n"
	  . "SAVEPOINT a; INSERT INTO s SELECT i % 5, i * 0.01,"
	  . " timestamptz '2026-01-01 00:00Z' + $minute * interval '1 minute'"
	  . " + i * interval '0.1 second' FROM generate_series(1, 150) i;"
	  . " RELEASE a;\n"
	  . "INSERT INTO acked VALUES (300);\n";
}

sub try_sql
{
	my ($sql) = @_;
	my ($ret, $out) = eval { $node->psql('postgres', $sql, timeout => 60) };
	return defined $ret && $ret == 0 ? $out : undef;
}

sub patiently
{
	my ($sql) = @_;
	for (1 .. 600)
	{
		my $out = try_sql($sql);
		return $out if defined $out;
		usleep(100_000);
	}
	die "server did not come back";
}

# Until the log says so.
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

sub exact
{
	my ($what) = @_;

	# views that failed at the point go on
	patiently("SELECT weir.resume(view) FROM weir.views WHERE state = 'failed'");
	my $done = patiently("SELECT weir.wait_for(NULL, '60 s')");
	my $bad  = '';
	$bad .= 'not consumed; ' if $done ne 't';
	for my $view (sort keys %batch)
	{
		my $n = patiently("SELECT (SELECT count(*) FROM (TABLE $view EXCEPT ALL"
			  . " ($batch{$view})) x) + (SELECT count(*) FROM"
			  . " (($batch{$view}) EXCEPT ALL TABLE $view) x)");
		$bad .= "$view: $n rows differ; " if $n ne '0';
	}
	my $log = patiently('SELECT (SELECT count(*) FROM s)'
		  . ' - (SELECT coalesce(sum(n), 0) FROM acked)');
	$bad .= "the log has $log events too many; " if $log ne '0';
	my $late = patiently('SELECT sum(late) FROM weir.views');
	$bad .= "$late late; " if $late ne '0';
	is($bad, '', $what);
}

my %hit = (
	error => qr/debug point "[^"]*" raised an error/,
	fatal => qr/debug point "[^"]*" ended the process/,
	kill  => qr/was terminated by signal 9/);

# ---- in the worker ----
my @worker_points = (
	'batch-folded',          'publish',
	'state-publish',         'state-publish-end',
	'checkpoint-start',      'checkpoint-stamped',
	'checkpoint-closed',     'checkpoint-position',
	'checkpoint-commit',     'checkpoint-committed',
	'swap-locked',           'swap-filled',
	'swap-commit',           'swap-committed');

patiently(events() . 'COMMIT');
exact('at first');
for my $point (@worker_points)
{
	for my $action ('error', 'fatal', 'kill')
	{
		# no error can be raised where nothing may raise
		next if $point =~ /^state-/ && $action ne 'kill';
		my $offset = -s $node->logfile;

		patiently("ALTER SYSTEM SET weir.debug_points = '$point=$action'");
		patiently('SELECT pg_reload_conf()');
		try_sql(events() . 'COMMIT');
		try_sql('REFRESH MATERIALIZED VIEW win;'
			  . ' REFRESH MATERIALIZED VIEW live')
		  if $point =~ /^swap/;
		try_sql("SET statement_timeout = '3s'; SELECT weir.checkpoint()")
		  if $point =~ /^checkpoint/;
		ok(wait_log($hit{$action}, $offset), "$point: $action happened");
		patiently(events() . 'COMMIT');
		patiently('ALTER SYSTEM RESET weir.debug_points');
		patiently('SELECT pg_reload_conf()');
		exact("exact after $action at $point");
	}
}

# ---- in the writer ----
for my $point ('stream_write', 'log_append', 'stream_pre_commit',
	'order_publish')
{
	for my $action ('error', 'fatal', 'kill')
	{
		next if $point eq 'order_publish' && $action ne 'kill';
		for my $end ('COMMIT', "PREPARE TRANSACTION 'p'; COMMIT PREPARED 'p'")
		{
			try_sql("SET weir.debug_points = '$point=$action';\n"
				  . events()
				  . $end);
			# one that was prepared is committed, whatever happened
			patiently('SELECT 1');
			try_sql("COMMIT PREPARED 'p'");
			patiently(events() . 'COMMIT');
			exact("exact after $action at $point in a writer, "
				  . substr($end, 0, 7));
		}
	}
}

# ---- in a reader ----
for my $point ('state-read', 'view-image')
{
	for my $action ('error', 'fatal', 'kill')
	{
		is( try_sql("SET weir.debug_points = '$point=$action'; TABLE live"),
			undef, "a read fails at $point by $action");
		patiently(events() . 'COMMIT');
		exact("exact after $action at $point in a reader");
	}
}

# And once more after a restart.
$node->restart;
exact('exact after a restart');
weir_log_is_clean($node);
$node->stop;
done_testing();
