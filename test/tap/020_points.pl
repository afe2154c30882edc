# Every debug point in the source, at its first, second and third hit in a
# process: an error, one that passes, the process's end, kill -9, and a sleep
# during which others go on.  Whatever happens there, afterwards every view
# equals its query, late events are in the late table once, and the stream holds
# what was acknowledged.  Needs debug points.  WEIR_HITS: how many hits, each point
# up to the first that nothing comes to (without it 3, and at the places named in
# @once one error and one kill); WEIR_POINTS: only points that match it.
use strict;
use warnings;

use lib 'test/tap';

use IPC::Run;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time usleep);
use WeirTest;

use constant SURE => 3; # hits that must come about
use constant PATIENCE => 120; # seconds, until they have

my $only = $ENV{WEIR_POINTS} // '';
my @once = qw(adopt open prepared restore summary trim truncate wish);
my %most = (adopt => 5, open => 5, restore => 5, trim => 5); # a hit takes a second
my $hits;

sub once_at
{
	my ($place) = @_;
	return !defined $ENV{WEIR_HITS} && grep { $_ eq $place } @once;
}

sub hits_at
{
	my ($place) = @_;
	my $all = $ENV{WEIR_HITS} // (once_at($place) ? 1 : SURE);

	return defined $most{$place} && $all > $most{$place} ? $most{$place} : $all;
}

# What makes a process come to a point.
my %place = (
	'view-open'            => 'open',
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
	'swap-ends'            => 'swap',
	'swap-committed'       => 'swap',
	'stream_write'         => 'writer',
	'log_append'           => 'writer',
	'stream_pre_commit'    => 'writer',
	'order_publish'        => 'writer',
	'stream-entry'         => 'prepared',
	'prepare-recorded'     => 'prepared',
	'prepared'             => 'prepared',
	'prepared-ended'       => 'prepared',
	'adopt-prepared'       => 'adopt',
	'retention-marked'     => 'trim',
	'retention-commit'     => 'trim',
	'truncate-locked'      => 'truncate',
	'truncate-marked'      => 'truncate',
	'view-created'         => 'wish',
	'ddl-committed'        => 'wish',
	'wish-put'             => 'wish',
	'wish-committed'       => 'wish',
	'run-put'              => 'summary',
	'restore-row'          => 'restore',
	'restore-adopted'      => 'restore',
	'restore-number'       => 'restore',
	'state-read'           => 'reader',
	'state-read-on'        => 'reader',
	'view-image'           => 'reader',
	'checkpoint-asked'     => 'asker');

# a reader of weir.streams (debug_list.spec), a transaction that is larger than
# the memory (018_parts.pl), and what is written ahead of a checkpoint
# (041_ahead.pl), or in keys that a checkpoint looks at (042_taken.pl), which do all
# this there, and places that hints are tested at
# (038_hints.pl)
my @elsewhere = ('streams-listed', 'part-through', 'batch-open', 'reader-scan',
	'ahead-start', 'ahead-written', 'ahead-committed', 'spans-taken', 'spans-trimmed', 'collect-prepared');

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
DROP TABLE IF EXISTS s, acked, late, r, cut, cut_twin, big, big_twin CASCADE;
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
-- trimmed at once, but for what "holds" has yet to consume
CREATE TABLE r (x int) USING stream WITH (retention = '1 us');
CREATE MATERIALIZED VIEW moves USING continuous AS SELECT count(*) AS n, sum(x) AS total FROM r;
CREATE MATERIALIZED VIEW holds USING continuous AS SELECT count(*) AS n, sum(x) AS total FROM r;
CREATE TABLE cut (x int) USING stream;
CREATE TABLE cut_twin (x int);
CREATE MATERIALIZED VIEW of_cut USING continuous AS SELECT x % 5 AS k, count(*) AS n, sum(x) AS total FROM cut GROUP BY 1;
CREATE TABLE big (x int, pad text, ts timestamptz) USING stream WITH (event_time = ts);
CREATE TABLE big_twin (x int, ts timestamptz);

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
		'SELECT 1, 1::bigint WHERE false' ],
	truncated => [ 'SELECT count(*) FROM cut HAVING count(*) NOT IN (0, 20)',
		'SELECT 1::bigint WHERE false' ],
	cut => [ 'TABLE of_cut', 'SELECT x % 5, count(*), sum(x) FROM cut_twin GROUP BY 1' ],
	big => [ 'SELECT x, ts FROM big', 'TABLE big_twin' ],
	span => [ "SELECT x FROM big WHERE ts >= '2026-01-01 00:20Z' AND ts < '2026-01-01 00:40Z'",
		"SELECT x FROM big_twin WHERE ts >= '2026-01-01 00:20Z' AND ts < '2026-01-01 00:40Z'" ]);

my $create_extra = 'CREATE MATERIALIZED VIEW IF NOT EXISTS extra USING continuous AS SELECT k, count(*) AS n FROM s GROUP BY k';
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

# Once, though the server may die before it has told that it has committed.
sub put_events
{
	my $sql = events() . 'COMMIT';

	until (defined weir_try($node, $sql))
	{
		last if weir_patiently($node, "SELECT count(*) FROM acked WHERE x = $x") > 0;
	}
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
	my $text  = $hit{$action} =~ s/%s/$point/r;
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
	my $done = weir_go_on($node);
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
	$bad .= ' not consumed' if !$done;
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
		# another one would begin anew
		weir_try($node, "SELECT weir.wait_for('win', '2 s')");
	},
	# the worker does what COMMIT PREPARED has failed to do
	adopt => sub {
		weir_try($node, events() . "PREPARE TRANSACTION 'p'");
		weir_try($node, "SET weir.debug_points = 'prepared-ended=error';\nCOMMIT PREPARED 'p'");
		weir_try($node, "SELECT weir.wait_for(NULL, '2 s')");
	},
	open => sub {
		weir_try($node, events() . 'COMMIT');
		weir_try($node, 'SELECT pg_terminate_backend(pid, 5000) FROM weir.workers');
		weir_try($node, "SELECT weir.wait_for(NULL, '2 s')");
	},
	trim => \&trim);

# "holds" stands still, with events before it that retention would like to take:
# it is given up, with weir.max_held_log = 0.
my $behind = 0;  # events that "holds" has lost for good
my $kept   = ''; # its rows when it was stopped
my $wrong  = '';

sub trim
{
	go_on_after_trim();
	weir_patiently($node, "SELECT weir.pause('holds')");
	$node->poll_query_until('postgres',
		"SELECT state = 'paused' FROM weir.views WHERE view = 'holds'::regclass") or die;
	$kept = weir_patiently($node, 'TABLE holds');
	weir_patiently($node, 'INSERT INTO r SELECT generate_series(1, 10)');
	weir_try($node, "SELECT weir.wait_for('moves', '2 s')");
	weir_try($node, "SET statement_timeout = '2s'; SELECT weir.checkpoint()") for 1, 2;
}

# Lost, it shows what it had; not lost, it has lost nothing.
sub go_on_after_trim
{
	if (!defined weir_try($node, "SELECT weir.resume('holds')"))
	{
		# no worker, or it is lost indeed
		weir_patiently($node, "SELECT weir.wait_for('moves', '120 s')");
		my $state = weir_patiently($node, "SELECT state FROM weir.views WHERE view = 'holds'::regclass");
		my $rows = weir_patiently($node, 'TABLE holds');
		$wrong .= "state $state with $rows, not $kept\n" if $state ne 'lost' || $rows ne $kept;
		weir_patiently($node, 'REFRESH MATERIALIZED VIEW holds');
		weir_patiently($node, "SELECT weir.wait_for(NULL, '120 s')");
		$behind = weir_patiently($node, 'SELECT m.n - h.n FROM moves m, holds h');
		return;
	}
	weir_patiently($node, "SELECT weir.wait_for(NULL, '120 s')");
	my $now = weir_patiently($node, 'SELECT m.n - h.n FROM moves m, holds h');
	$wrong .= "$now events behind, not $behind\n" if $now ne $behind;
}

# A restore, of which a failed step is made again.  Whatever it was, the copy has
# what the database had, and goes on.
my $dir = PostgreSQL::Test::Utils::tempdir();

sub step
{
	my ($options, @psql) = @_;
	local $ENV{PGOPTIONS} = $options;
	my ($out, $err);

	return IPC::Run::run(
		[ 'psql', '-Xq', '-v', 'ON_ERROR_STOP=1', '-d', $node->connstr('restored'), @psql ],
		'>', \$out, '2>', \$err);
}

sub restored
{
	my ($sql) = @_;
	my $out;

	for (1 .. 1200)
	{
		my ($rc, $text) = eval { $node->psql('restored', $sql, timeout => 180) };
		return $text if defined $rc && $rc == 0;
		usleep(50_000);
	}
	die "the restored database does not answer: $sql";
}

sub restore
{
	my ($set) = @_;
	my $options = '-c ' . $set =~ s/[ ']//gr;
	my $rows = join ' UNION ALL ',
	  map { "SELECT '$_', count(*), md5(string_agg(v::text, ',' ORDER BY v::text)) FROM $_ v" }
	  qw(live win skips wide runs late s moves of_cut);

	weir_patiently($node, 'DROP DATABASE IF EXISTS restored WITH (FORCE)');
	weir_patiently($node, 'CREATE DATABASE restored');
	step('', '-f', "$dir/pre-data") or die 'pre-data';
	if (!step($options, '-1', '-f', "$dir/data"))
	{
		weir_patiently($node, 'SELECT 1');
		step('', '-1', '-f', "$dir/data") or die 'data';
	}
	if (!step($options, '-f', "$dir/post-data"))
	{
		my $stopped;

		weir_patiently($node, 'SELECT 1');
		$stopped = restored("SELECT view FROM weir.views WHERE state = 'stopped'");
		restored("REFRESH MATERIALIZED VIEW $_") for split /\n/, $stopped;
	}
	is(restored("SELECT weir.wait_for(NULL, '120 s')"), 't', 'the copy has caught up');
	is(restored($rows), weir_patiently($node, $rows), 'the copy is the same');
	restored("INSERT INTO s VALUES (0, 1, 1, '2026-01-01Z')");
	restored("SELECT weir.wait_for(NULL, '120 s')");
	is(restored('SELECT sum(n) FROM live'), weir_patiently($node, 'SELECT sum(n) + 1 FROM live'), 'and goes on');
}

# One session that comes to it several times.
my %session = (
	writer => sub {
		return join('',
			map { events() . ($_ % 2 ? "COMMIT;\n" : "PREPARE TRANSACTION 'p';\nCOMMIT PREPARED 'p';\n") }
			  1 .. $hits);
	},
	reader => sub { return "TABLE wide; TABLE live;\n" x $hits },
	asker  => sub { return "SELECT weir.checkpoint();\n" x $hits },
	prepared => sub {
		return join('', map { events() . "PREPARE TRANSACTION 'p';\nCOMMIT PREPARED 'p';\n" } 1 .. $hits);
	},
	truncate => sub {
		return ("BEGIN;\nINSERT INTO cut SELECT generate_series(1, 20);\n"
			  . "INSERT INTO cut_twin SELECT generate_series(1, 20);\nCOMMIT;\n"
			  . "SELECT weir.wait_for('of_cut', '60 s');\nTRUNCATE cut;\n") x $hits;
	},
	wish => sub {
		return ("DROP MATERIALIZED VIEW IF EXISTS extra;\n$create_extra;\n"
			  . "SELECT weir.pause('extra');\nSELECT weir.resume('extra');\n") x $hits;
	},
	# VACUUM sees to it that all runs are made anew, if nobody holds it up
	summary => sub {
		return ("BEGIN;\nINSERT INTO big VALUES (1, 'p', '2026-01-01 00:30Z');\n"
			  . "INSERT INTO big_twin VALUES (1, '2026-01-01 00:30Z');\nCOMMIT;\n"
			  . "VACUUM big;\nSELECT weir.summarize('big');\n") x ($hits + 3);
	});

# What a place needs beside the schema; what is done once the fault is over.
my %before = (
	trim => sub {
		weir_patiently($node, 'ALTER SYSTEM SET weir.max_held_log = 0');
		weir_patiently($node, 'SELECT pg_reload_conf()');
		$behind = 0;
	},
	summary => sub {
		weir_patiently($node, "SET weir.compression = off;\nBEGIN;\n"
			  . "INSERT INTO big SELECT i, repeat('p', 8000), '2026-01-01Z'::timestamptz + i * interval '1 s' FROM generate_series(1, 2400) i;\n"
			  . "INSERT INTO big_twin SELECT i, '2026-01-01Z'::timestamptz + i * interval '1 s' FROM generate_series(1, 2400) i;\nCOMMIT");
	},
	wish => sub {
		$checks{extra} = [ 'TABLE extra', 'SELECT k, count(*) FROM s GROUP BY k' ];
		weir_patiently($node, $create_extra);
	},
	restore => sub {
		foreach my $section ('pre-data', 'data', 'post-data')
		{
			command_ok([ 'pg_dump', "--section=$section", '-f', "$dir/$section", '-d', $node->connstr('postgres') ],
				"dump of $section");
		}
	});
my %after = (
	trim => sub { go_on_after_trim(); is($wrong, '', 'lost, or nothing lost'); $wrong = '' },
	truncate => sub {
		weir_patiently($node, "SELECT weir.wait_for('of_cut', '120 s'); TRUNCATE cut");
		is(weir_patiently($node, 'SELECT count(*) FROM cut'), '0', 'truncated');
	},
	summary => sub {
		my $runs = 0;

		for (1 .. 100)
		{
			weir_try($node, "VACUUM big;\nSELECT weir.summarize('big')");
			$runs = weir_patiently($node, "SELECT count(*) FROM weir.log_run WHERE stream = 'big'::regclass AND NOT opaque");
			last if $runs > 0;
			usleep(100_000);
		}
		cmp_ok($runs, '>', 0, 'there are summaries');
	},
	wish => sub { weir_patiently($node, "$create_extra;\nSELECT weir.resume('extra')") });
my %finally = (
	trim => sub {
		weir_patiently($node, 'ALTER SYSTEM RESET weir.max_held_log');
		weir_patiently($node, 'SELECT pg_reload_conf()');
	},
	wish => sub { delete $checks{extra}; weir_patiently($node, 'DROP MATERIALIZED VIEW extra') },
	restore => sub { weir_patiently($node, 'DROP DATABASE restored WITH (FORCE)') });

sub fault
{
	my ($point, $action, $n) = @_;
	my $place  = $place{$point};
	my $offset = -s $node->logfile;
	my $set    = "weir.debug_points = '$point=$action\@$n'";
	my $until  = $n <= SURE ? time + PATIENCE : 0;

	if ($place eq 'restore')
	{
		restore($set);
	}
	elsif ($round{$place})
	{
		weir_patiently($node, "ALTER SYSTEM SET $set");
		weir_patiently($node, 'SELECT pg_reload_conf()');
		# as often as it takes a worker that is slow, and takes several at a time
		for (my $i = 0; $i < $n + 5 || time < $until; $i++)
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
			IPC::Run::timeout(PATIENCE));

		weir_try($node, events() . 'COMMIT') for 1 .. 5;
		IPC::Run::finish($sleep) or diag($err);
	}
	else
	{
		# who gets through has not come to it: VACUUM may have been held up
		1 while defined weir_try($node, "SET $set;\n" . $session{$place}->())
		  && !happened($point, $action, $offset, 0) && time < $until;
	}
	my $came = happened($point, $action, $offset, 30);
	ok($came, "$point: $action at hit $n came about") if $came || $n <= SURE;

	weir_patiently($node, 'SELECT 1');
	if ($round{$place})
	{
		put_events();
		weir_patiently($node, 'ALTER SYSTEM RESET weir.debug_points');
		weir_patiently($node, 'SELECT pg_reload_conf()');
	}
	# one that was prepared is committed, whatever happened
	weir_patiently($node, 'COMMIT PREPARED ' . "'$_'")
	  foreach split(/\n/, weir_patiently($node, 'SELECT gid FROM pg_prepared_xacts'));
	$after{$place}->() if $after{$place};
	exact("$point: exact after $action at hit $n");
	return $came;
}

my $at = '';
foreach my $point (sort { $place{$a} cmp $place{$b} || $a cmp $b } grep { /$only/ } keys %place)
{
	my $started = time;
	my $place   = $place{$point};

	if ($place ne $at || !once_at($place))
	{
		$finally{$at}->() if $finally{$at};
		weir_patiently($node, $schema);
		put_events() for 1 .. 8;
		$before{$place}->() if $before{$place};
		exact("$point: exact at first");
		$at   = $place;
		$hits = hits_at($place);
	}
	foreach my $action ('sleep', 'cancel', 'error', 'fatal', 'kill')
	{
		# no error can be raised where nothing may raise
		next if $critical{$point} && $action =~ /^(cancel|error|fatal)$/;
		next if once_at($place) && $action !~ /^(error|kill)$/;
		foreach my $n (1 .. $hits)
		{
			last if !fault($point, $action, $n);
		}
	}
	note(sprintf('%s: %.1f s', $point, time - $started));
}
$finally{$at}->() if $finally{$at};

# And once more after a restart.
$node->restart;
exact('exact after a restart');
is($node->safe_psql('postgres', 'SELECT count(*) FROM pg_prepared_xacts'),
	'0', 'no prepared transaction is left');
weir_log_is_clean($node);
$node->stop;
done_testing();
