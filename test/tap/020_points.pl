# Every debug point in the source, at its first, second and third hit in a
# process: an error, one that passes, the process's end, kill -9, and a sleep
# during which others go on.  Whatever happens there, afterwards every view
# equals its query, late events are in the late table once, and the stream holds
# what was acknowledged.  Needs debug points.  WEIR_HITS: more hits than three;
# WEIR_POINTS: only points that match it.
use strict;
use warnings;

use lib 'test/tap';

use IPC::Run;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time usleep);
use WeirTest;

my $hits = $ENV{WEIR_HITS} // 3;
my $only = $ENV{WEIR_POINTS} // '';

# What makes a process come to a point.
my %place = (
	'batch-start'          => 'batch',
	'batch-folded'         => 'batch',
	'publish'              => 'batch',
	'state-publish'        => 'batch',
	'state-publish-end'    => 'batch',
	'checkpoint-start'     => 'checkpoint',
	'checkpoint-stamped'   => 'checkpoint',
	'checkpoint-closed'    => 'checkpoint',
	'late-write'           => 'checkpoint',
	'checkpoint-position'  => 'checkpoint',
	'checkpoint-commit'    => 'checkpoint',
	'checkpoint-committed' => 'checkpoint',
	'swap-locked'          => 'swap',
	'swap-filled'          => 'swap',
	'swap-commit'          => 'swap',
	'swap-committed'       => 'swap',
	'stream_write'         => 'writer',
	'log_append'           => 'writer',
	'stream_pre_commit'    => 'writer',
	'order_publish'        => 'writer',
	'state-read'           => 'reader',
	'state-read-on'        => 'reader',
	'view-image'           => 'reader',
	'checkpoint-asked'     => 'asker');

my @elsewhere = (
	'streams-listed',                         # debug_list.spec
	'part-through',                           # 018_parts.pl
	'batch-open', 'reader-scan',              # 038_hints.pl
	'adopt-prepared', 'prepared-ended', 'stream-entry',    # 011_commit_order.pl
	'retention-marked', 'retention-commit');               # 023_lost.pl

# All that the source has; the critical ones cannot raise.
my %critical;
my %known;
foreach my $file (glob('src/*.c'))
{
	next if $file =~ /debug\.c$/;
	my $text = slurp_file($file);

	while ($text =~ /weir_debug_point(_critical)?\("([^"]+)"\)/g)
	{
		$known{$2} = 1;
		$critical{$2} = 1 if $1;
	}
}

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
# these have tests of their own
delete @known{@elsewhere};
is_deeply([ sort keys %place ], [ sort keys %known ],
	'this test knows every debug point');

# x numbers the transactions; an event with k = 100 cannot be divided by
my $schema = <<'SQL';
SET client_min_messages = warning;
DROP TABLE IF EXISTS s, acked, late CASCADE;
CREATE TABLE s (x int, k int, v numeric, ts timestamptz) USING stream
  WITH (event_time = ts, watermark_delay = '10 seconds');
CREATE TABLE acked (x int);
CREATE MATERIALIZED VIEW live USING continuous AS
  SELECT k, count(*) AS n, sum(v) AS total FROM s GROUP BY k;
CREATE MATERIALIZED VIEW win USING continuous WITH (late_table = late) AS
  SELECT window_start, k, count(*) AS n, sum(v) AS total
  FROM s, tumble(ts, '1 minute') GROUP BY window_start, k;
CREATE MATERIALIZED VIEW skips USING continuous WITH (on_error = skip) AS
  SELECT k % 3 AS k3, sum(7 / (k - 100)) AS n FROM s GROUP BY k % 3;
-- many groups, of which a read copies some at a time
CREATE MATERIALIZED VIEW wide USING continuous AS
  SELECT x, k, v, count(*) AS n FROM s GROUP BY x, k, v;
CREATE MATERIALIZED VIEW runs USING continuous AS
  SELECT window_start, window_end, count(*) AS n FROM s, count_window(40, 20)
  GROUP BY window_start, window_end;
CREATE INDEX ON win (window_start);

CREATE OR REPLACE FUNCTION judge() RETURNS void LANGUAGE sql AS $$
CREATE TEMP TABLE judged AS
  SELECT s.*, coalesce(w.w, '-infinity') AS w
  FROM s JOIN (SELECT x, max(m) OVER (ORDER BY o ROWS BETWEEN UNBOUNDED PRECEDING
                                      AND 1 PRECEDING) - interval '10 seconds' AS w
      FROM (SELECT x, max(ts) AS m, min(weir.log_order('s', ctid)) AS o
            FROM s GROUP BY x) t) w USING (x) $$;
SQL
my %checks = (
	live => [ 'TABLE live', 'SELECT k, count(*), sum(v) FROM judged GROUP BY k' ],
	win  => [
		'TABLE win',
		"SELECT date_trunc('minute', ts), k, count(*), sum(v) FROM judged"
		  . " WHERE date_trunc('minute', ts) + interval '1 minute' > w GROUP BY 1, 2"
	],
	late => [
		'SELECT x, k, v, ts, watermark FROM late',
		'SELECT x, k, v, ts, w FROM judged'
		  . " WHERE date_trunc('minute', ts) + interval '1 minute' <= w"
	],
	skips => [
		'TABLE skips',
		'SELECT k % 3, sum(7 / nullif(k - 100, 0)) FROM judged'
		  . ' WHERE k <> 100 GROUP BY k % 3'
	],
	wide => [ 'TABLE wide', 'SELECT x, k, v, count(*) FROM judged GROUP BY x, k, v' ],
	runs => [
		'TABLE runs',
		'SELECT window_start, window_end, count(*) FROM s, count_window(40, 20)'
		  . ' GROUP BY window_start, window_end'
	],
	counted => [ "SELECT late FROM weir.views WHERE view = 'win'::regclass",
		'SELECT count(*) FROM late' ],
	acked => [ 'SELECT DISTINCT x FROM s', 'TABLE acked' ],
	whole => [ 'SELECT x, count(*) FROM s GROUP BY x HAVING count(*) <> 25',
		'SELECT 1, 1::bigint WHERE false' ]);

my $x = 0;

# SQL of a transaction of 25 events in a minute of their own, but for those that
# are late; "\n" ends each statement.
sub events
{
	my $at = "timestamptz '2026-01-01 00:00Z' + $x * interval '1 minute'";

	$x++;
	return "BEGIN;\nINSERT INTO s SELECT $x, i % 7, i * 0.01, $at"
	  . ' + (i - CASE WHEN i = 3 THEN 180 ELSE 0 END) * interval \'1 second\''
	  . " FROM generate_series(1, 15) i;\n"
	  . "SAVEPOINT a;\nINSERT INTO s SELECT $x, i, 1, $at FROM generate_series(1, 5) i;\n"
	  . "ROLLBACK TO a;\nINSERT INTO s SELECT $x, CASE WHEN i = 1 AND $x % 3 = 0"
	  . " THEN 100 ELSE i END, 0.5, $at + interval '20 seconds'"
	  . " FROM generate_series(1, 10) i;\nRELEASE a;\n"
	  . "INSERT INTO acked VALUES ($x);\n";
}

# Has it come about?
my %hit = (
	error => 'debug point "%s" raised an error',
	cancel => 'debug point "%s" cancels',
	fatal => 'debug point "%s" ended the process',
	sleep => 'debug point "%s" sleeps',
	kill  => 'was terminated by signal 9');

sub happened
{
	my ($point, $action, $offset, $seconds) = @_;
	my $text  = sprintf($hit{$action}, $point);
	my $until = time + $seconds;

	# the postmaster says it after the client knows it
	for (;;)
	{
		return 1 if index(slurp_file($node->logfile, $offset), $text) >= 0;
		return 0 if time > $until;
		usleep(20_000);
	}
}

sub exact
{
	my ($what) = @_;
	my $sql = "SELECT judge();\n";

	# views that failed at the point go on
	weir_patiently($node, "SELECT weir.resume(view) FROM weir.views WHERE state = 'failed'");
	my $done = weir_patiently($node, "SELECT weir.wait_for(NULL, '60 s')");
	weir_patiently($node, 'SELECT weir.checkpoint()');
	foreach my $name (sort keys %checks)
	{
		my ($got, $model) = @{ $checks{$name} };

		$sql .= "SELECT '$name' || ' differs by ' || n FROM"
		  . " (SELECT (SELECT count(*) FROM ($got EXCEPT ALL ($model)) a)"
		  . " + (SELECT count(*) FROM (($model) EXCEPT ALL $got) b) AS n) d"
		  . " WHERE n <> 0;\n";
	}
	my $bad = weir_patiently($node, $sql);
	$bad =~ s/^\n+//;
	$bad .= ' not consumed' if $done ne 't';
	is($bad, '', $what);
}

# One more time through the place.
my %round = (
	batch => sub {
		weir_try($node, events() . 'COMMIT');
		weir_try($node, "SELECT weir.wait_for(NULL, '200 ms')");
	},
	checkpoint => sub {
		weir_try($node, events() . 'COMMIT');
		weir_try($node, "SELECT weir.wait_for(NULL, '1 s')");
		weir_try($node, "SET statement_timeout = '2s'; SELECT weir.checkpoint()");
	},
	swap => sub {
		weir_try($node, 'REFRESH MATERIALIZED VIEW win');
	});

# One session that comes to it several times.
my %session = (
	writer => sub {
		return join('',
			map { events() . ($_ % 2 ? "COMMIT;\n" : "PREPARE TRANSACTION 'p';\nCOMMIT PREPARED 'p';\n") }
			  1 .. $hits);
	},
	reader => sub { return "TABLE wide; TABLE live;\n" x $hits },
	asker  => sub { return "SELECT weir.checkpoint();\n" x $hits });

sub fault
{
	my ($point, $action, $n) = @_;
	my $place  = $place{$point};
	my $offset = -s $node->logfile;
	my $set    = "weir.debug_points = '$point=$action\@$n'";

	if ($round{$place})
	{
		weir_patiently($node, "ALTER SYSTEM SET $set");
		weir_patiently($node, 'SELECT pg_reload_conf()');
		for (1 .. $n + 5)
		{
			$round{$place}->();
			last if happened($point, $action, $offset, 0.2);
		}
	}
	elsif ($action eq 'sleep')
	{
		# meanwhile others commit
		my $sql   = "SET $set;\n" . $session{$place}->();
		my $sleep = IPC::Run::start(
			[ 'psql', '-XqAt', '-d', $node->connstr('postgres') ],
			'<', \$sql, '>', \my $out, '2>', \my $err,
			IPC::Run::timeout(60));

		weir_try($node, events() . 'COMMIT') for 1 .. 5;
		IPC::Run::finish($sleep) or diag($err);
	}
	else
	{
		weir_try($node, "SET $set;\n" . $session{$place}->());
	}
	ok(happened($point, $action, $offset, 30), "$point: $action at hit $n came about");

	weir_patiently($node, 'SELECT 1');
	if ($round{$place})
	{
		weir_patiently($node, events() . 'COMMIT');
		weir_patiently($node, 'ALTER SYSTEM RESET weir.debug_points');
		weir_patiently($node, 'SELECT pg_reload_conf()');
	}
	# one that was prepared is committed, whatever happened
	weir_patiently($node, 'COMMIT PREPARED ' . "'$_'")
	  foreach split(/\n/, weir_patiently($node, 'SELECT gid FROM pg_prepared_xacts'));
	exact("$point: exact after $action at hit $n");
}

foreach my $point (sort { $place{$a} cmp $place{$b} || $a cmp $b } keys %place)
{
	my $started = time;

	next if $point !~ /$only/;
	weir_patiently($node, $schema);
	weir_patiently($node, events() . 'COMMIT') for 1 .. 8;
	exact("$point: exact at first");
	foreach my $action ('sleep', 'cancel', 'error', 'fatal', 'kill')
	{
		# no error can be raised where nothing may raise
		next if $critical{$point} && $action =~ /^(cancel|error|fatal)$/;
		fault($point, $action, $_) for 1 .. $hits;
	}
	note(sprintf('%s: %.1f s', $point, time - $started));
}

# And once more after a restart.
$node->restart;
exact('exact after a restart');
is($node->safe_psql('postgres', 'SELECT count(*) FROM pg_prepared_xacts'),
	'0', 'no prepared transaction is left');
weir_log_is_clean($node);
$node->stop;
done_testing();
