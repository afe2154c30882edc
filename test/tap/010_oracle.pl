# The oracle: Nexmark bids, committed by four writers in transactions of 1 to
# 5,000 rows, some rolled back, while workers and the whole server are killed,
# a view is paused and refreshed, and readers look.  At the end every view
# equals its own SELECT run as a batch query, and the log equals what was
# acknowledged, by number and by a hash of every row.
#
# Every kill comes while writers write: they may take only a part of the events
# before the next one.
#
# The seed is printed; WEIR_SEED replays the schedule (not the interleaving).
# WEIR_EVENTS (default 1,000,000) and WEIR_KILLS (default 20) scale it.
use strict;
use warnings;

use lib 'test/tap';

use Fcntl qw(:flock SEEK_SET);
use File::Temp qw(tempdir);
use List::Util qw(min);
use POSIX qw(:sys_wait_h _exit);
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use WeirTest;
use Time::HiRes qw(usleep time);

my $seed   = $ENV{WEIR_SEED}   // int(rand(1_000_000_000));
my $events = $ENV{WEIR_EVENTS} // 1_000_000;
my $kills  = $ENV{WEIR_KILLS}  // 20;
note("WEIR_SEED=$seed WEIR_EVENTS=$events WEIR_KILLS=$kills");
diag("oracle: WEIR_SEED=$seed");
srand($seed);

my $nexgen = $ENV{WEIR_NEXGEN} // 'test/tools/nexgen';
die "$nexgen is not built: make test/tools/nexgen" unless -x $nexgen;

my $dir  = tempdir(CLEANUP => 1);
my $node = PostgreSQL::Test::Cluster->new('oracle');
$node->init;
$node->append_conf('postgresql.conf', <<"CONF");
shared_preload_libraries = 'pg_weir'
restart_after_crash = on
max_worker_processes = 16
max_prepared_transactions = 10
autovacuum = on
fsync = off
track_commit_timestamp = on
weir.checkpoint_interval = '500ms'
log_min_messages = warning
CONF
$node->start;
$node->safe_psql('postgres', <<'SQL');
CREATE EXTENSION pg_weir;
CREATE TABLE bids (auction bigint, bidder bigint, price bigint,
                   date_time timestamp NOT NULL)
  USING stream WITH (event_time = date_time, watermark_delay = '30 seconds');
CREATE TABLE pairs (k int, v int) USING stream;
CREATE TABLE acked (block int PRIMARY KEY, nrows int, hash bigint);
CREATE MATERIALIZED VIEW per_window USING continuous AS
  SELECT window_start, auction, count(*) AS n, sum(price) AS total,
         max(price) AS top, avg(price) AS mean
  FROM bids, tumble(date_time, '10 seconds')
  GROUP BY window_start, auction;
CREATE MATERIALIZED VIEW per_bidder USING continuous AS
  SELECT bidder, count(*) AS n, sum(price) AS total,
         count(DISTINCT auction) AS auctions
  FROM bids WHERE price % 2 = 0 GROUP BY bidder;
CREATE MATERIALIZED VIEW everything USING continuous AS
  SELECT count(*) AS n, sum(price) AS total FROM bids;
CREATE MATERIALIZED VIEW pair_sums USING continuous AS
  SELECT k, sum(v) AS s, count(*) AS n FROM pairs GROUP BY k;
SQL

# Disorder: event times up to 3 s late, as the generator makes them.
my $csv = "$dir/bids.csv";
system_or_bail($nexgen, '--seed', $seed % 1_000_000, '--rows', $events,
	'--events', 2 * $events, '--table', 'bid', '--narrow',
	'--out-of-order-ms', '3000', '--out', $csv);

# What the writers will send, line by line.
$node->safe_psql('postgres', <<"SQL");
CREATE TABLE input (line serial PRIMARY KEY, auction bigint, bidder bigint,
                    price bigint, date_time timestamp);
COPY input (auction, bidder, price, date_time) FROM '$csv' csv;
SQL

my $connstr = $node->connstr('postgres');

# Run a script in one psql; true if it succeeded.
sub run_sql
{
	my ($sql) = @_;
	my $pid = open(my $in, '|-');
	if (!$pid)
	{
		open(STDOUT, '>', '/dev/null');
		open(STDERR, '>', '/dev/null');
		exec('psql', '-X', '-q', '-v', 'ON_ERROR_STOP=1', '-d', $connstr)
		  or _exit(127);
	}
	local $SIG{PIPE} = 'IGNORE';
	print $in $sql;
	return close($in);
}

sub query
{
	my ($sql) = @_;
	my ($ret, $out) =
	  eval { $node->psql('postgres', $sql, timeout => 400) };
	return defined $ret && $ret == 0 ? $out : undef;
}

# Ask until the server answers again.
sub query_patiently
{
	my ($sql) = @_;
	for (1 .. 600)
	{
		my $out = query($sql);
		return $out if defined $out;
		usleep(100_000);
	}
	die "server did not come back";
}

# Blocks are handed out in file order, up to the line that is allowed.  The file
# "next" has the number of the next block, and its line and offset; "held.N" the
# line of what writer N has and has not committed.  A writer that the kills hit
# again and again holds the others up when they are $lead lines ahead, so that
# nothing is late: the file has more than 9,000 lines in a second of event time.
my $lead = 100_000;

sub write_file
{
	my ($name, $content) = @_;
	open(my $f, '>', "$dir/$name.new") or die;
	print $f $content;
	close($f);
	rename("$dir/$name.new", "$dir/$name") or die;
}

sub next_block
{
	my ($w, $want) = @_;
	for (;; usleep(20_000))
	{
		open(my $lock, '+<', "$dir/next") or die;
		flock($lock, LOCK_EX);
		unlink("$dir/held.$w");
		my ($block, $line, $offset) = split ' ', <$lock>;
		return ($block, $line) if $line == $events;
		my $left = min(slurp_file("$dir/allowed"),
			map { slurp_file($_) + $lead } glob("$dir/held.*")) - $line;
		next if $left <= 0;
		$want = $left if $want > $left;
		open(my $fh, '<', $csv) or die;
		seek($fh, $offset, SEEK_SET);
		my @rows;
		while (@rows < $want && defined(my $l = <$fh>)) { push @rows, $l }
		seek($lock, 0, SEEK_SET);
		truncate($lock, 0);
		print $lock join(' ', $block + 1, $line + @rows, tell($fh));
		write_file("held.$w", $line);
		close($lock);
		return ($block, $line, @rows);
	}
}

# How many lines have been handed out?
sub handed_out
{
	open(my $lock, '<', "$dir/next") or die;
	flock($lock, LOCK_SH);
	return (split ' ', <$lock>)[1];
}

write_file('next',    '0 0 0');
write_file('allowed', 0);

sub writer
{
	my ($w) = @_;
	srand($seed + $w);
	for (;;)
	{
		my $want = rand() < 0.3 ? 1 + int(rand(20)) : 1 + int(rand(5000));
		my ($block, $line, @rows) = next_block($w, $want);
		last unless @rows;
		my $n    = scalar @rows;
		my $x    = 1 + int(rand(1000));
		my ($a, $b) = (int(rand(50)), int(rand(50)));
		my $half = int($n / 2);
		my $junk = rand() < 0.2;
		my $sql  = "BEGIN;\n";

		# A savepoint whose rows must vanish, now and then.
		$sql .= "SAVEPOINT s;\nINSERT INTO bids SELECT 1, 1, 1, date_time"
		  . " FROM (VALUES ('$1'::timestamp)) v(date_time),"
		  . " generate_series(1, 300);\nROLLBACK TO s;\n"
		  if $junk && $rows[0] =~ /,([^,]+)$/ && chomp(my $t = $1);
		$sql .= "COPY bids FROM STDIN csv;\n"
		  . join('', @rows[ 0 .. $half - 1 ]) . "\\.\n"
		  if $half > 0;
		$sql .= "SAVEPOINT t;\n" if rand() < 0.3;
		$sql .= "COPY bids FROM STDIN csv;\n"
		  . join('', @rows[ $half .. $n - 1 ]) . "\\.\n";
		$sql .= "INSERT INTO pairs VALUES ($a, $x), ($b, -$x);\n"
		  . "INSERT INTO acked SELECT $block, $n,"
		  . " bit_xor(hashtextextended(ROW(auction, bidder, price, date_time)::text, 0))"
		  . " FROM input WHERE line > $line AND line <= $line + $n;\n";

		# The same rows first in a transaction that is rolled back.
		run_sql($sql . "ROLLBACK;\n") if rand() < 0.1;
		my $twophase = rand() < 0.05;
		my $finish   = "COMMIT PREPARED 'b$block';\n";
		my $whole    = $sql
		  . ($twophase ? "PREPARE TRANSACTION 'b$block';\n$finish" : "COMMIT;\n");
		my $send = $whole;
		until (run_sql($send))
		{
			# Was it committed although we did not hear?
			my $state = query_patiently(
				"SELECT (SELECT count(*) FROM acked WHERE block = $block),"
				  . " (SELECT count(*) FROM pg_prepared_xacts"
				  . "  WHERE gid = 'b$block')");
			my ($acked, $prepared) = split /\|/, $state;
			if ($acked)
			{
				# If so, a worker may have to give it its number.
				1 until query_patiently(
					"SELECT weir.wait_for('everything', '60 s')") eq 't';
				last;
			}
			$send = $prepared ? $finish : $whole;
			usleep(100_000);
		}
	}
	_exit(0);
}

my $no_server = join '|',
  'Broken pipe', 'connection to server', 'server closed the connection',
  'terminating connection', 'starting up', 'shutting down', 'recovery mode',
  'not yet accepting connections';

# Every read is a consistent cut: pairs cancel; what was counted never shrinks
# while the session lives.  A read may fail because there is no server.
sub reader
{
	my ($r) = @_;
	my ($good, $failed) = (0, 0);
	while (!-e "$dir/stop")
	{
		my ($ret, $out, $err) = eval {
			$node->psql('postgres',
				'SELECT n FROM everything;'
				  . ' SELECT coalesce(sum(s), 0), coalesce(sum(n), 0) % 2 FROM pair_sums;'
				  . ' SELECT count(*) FROM per_window WHERE n <= 0;'
				  . ' SELECT n FROM everything', timeout => 120);
		};
		my $wrong;
		if (defined $ret && $ret == 0)
		{
			my ($before, $pairs, $empty, $after) = split /\n/, $out;
			$good++;
			$wrong = $out
			  if $pairs ne '0|0' || $empty != 0 || $after < $before;
		}
		else
		{
			$failed++;
			$err //= $@;
			$wrong = $err if $err !~ /$no_server/;
		}
		if (defined $wrong)
		{
			open(my $f, '>>', "$dir/wrong");
			print $f "$wrong\n";
			close($f);
		}
		usleep(50_000);
	}
	write_file("reads$r", "$good $failed");
	_exit(0);
}

# A child must never get to this process's END blocks: they stop the server.
sub child
{
	my ($code, @args) = @_;
	my $pid = fork() // die "fork: $!";
	return $pid if $pid;
	eval { $code->(@args) };
	open(my $f, '>>', "$dir/died");
	print $f $@;
	close($f);
	_exit(1);
}

my @writers = map { child(\&writer, $_) } 1 .. 4;
my @readers = map { child(\&reader, $_) } 1 .. 2;

my %injected = (worker => 0, server => 0, restart => 0, pause => 0,
	refresh => 0);

# Kill a worker, given its pid, or the server; false if there is no such worker.
sub inject_kill
{
	my ($pid) = @_;
	if (defined $pid)
	{
		return 0 unless kill('KILL', $pid);
		$injected{worker}++;
	}
	elsif (rand() < 0.75)
	{
		weir_kill9($node);
		weir_start($node);
		$injected{server}++;
	}
	else
	{
		$node->stop('immediate');
		$node->start;
		$injected{restart}++;
	}
	return 1;
}

sub inject_pause
{
	query_patiently("SELECT weir.pause('per_bidder')");
	for (1 .. 600)
	{
		my $state = query_patiently(
			"SELECT state FROM weir.views WHERE view = 'per_bidder'::regclass");
		if ($state eq 'paused')
		{
			$injected{pause}++;
			last;
		}
		usleep(100_000);
	}
	query_patiently("SELECT weir.resume('per_bidder')");
}

my $started = time;
my $count = 0;
while ($count < $kills && time - $started < 1200)
{
	my $pid;

	inject_pause()
	  if $count >= $kills / 4 && !$injected{pause} || rand() < 0.05;
	if ($count >= $kills / 2 && !$injected{refresh})
	{
		query_patiently('REFRESH MATERIALIZED VIEW per_window');
		$injected{refresh}++;
	}
	$pid = query_patiently('SELECT coalesce((SELECT pid FROM weir.workers'
		  . ' ORDER BY random() LIMIT 1), 0)') || next
	  if rand() < 0.6;

	# A writer that has to wait, waits for nothing but the next of these.
	my $from = handed_out();
	my $part = int(($events - $from) / ($kills - $count + 1));
	my $goal = $from + $part * (0.1 + rand(0.7));
	write_file('allowed', $from + $part);
	usleep(1000) while handed_out() < $goal && time - $started < 1200;

	# Have they taken all they may get, maybe nobody writes any more.
	my $loaded = handed_out() < $from + $part;
	$count++ if inject_kill($pid) && $loaded;
}
write_file('allowed', $events);
my $done;
for (;;)
{
	@writers = grep { waitpid($_, WNOHANG) == 0 } @writers;
	$done = !@writers;
	last if $done || time - $started > 1500;
	usleep(100_000);
}
ok($done, 'writers ended');
waitpid($_, 0) for @writers;

# Drain.
query_patiently("SELECT 1");
for my $gid (split /\n/, query_patiently("SELECT gid FROM pg_prepared_xacts"))
{
	query("COMMIT PREPARED '$gid'");
}
is(query_patiently("SELECT weir.wait_for(NULL, '300 s')"),
	't', 'every view has consumed everything');
open(my $stop, '>', "$dir/stop");
close($stop);
waitpid($_, 0) for @readers;
ok(!-e "$dir/wrong", 'no read was wrong, or failed but for want of a server')
  or diag(slurp_file("$dir/wrong"));
ok(!-e "$dir/died", 'no writer or reader died')
  or diag(slurp_file("$dir/died"));

note("injected: " . join(', ', map { "$_ $injected{$_}" } sort keys %injected));
cmp_ok($count, '>=', $kills, "$count kills while writers wrote");
cmp_ok($injected{worker}, '>=', 1, 'some of a worker');
cmp_ok($injected{server} + $injected{restart}, '>=', 1, 'some of the server');
cmp_ok($injected{pause}, '>=', 1, 'a view was paused');
cmp_ok($injected{refresh}, '>=', 1, 'a view was refreshed');
cmp_ok(
	query("SELECT generation FROM weir.view_position"
		  . " WHERE view = 'per_window'::regclass AND answering"),
	'>', 1, 'and answers with what was rebuilt');
my ($good, $failed) = (0, 0);
for my $r (1 .. 2)
{
	my ($g, $f) = split ' ', slurp_file("$dir/reads$r");
	$good   += $g;
	$failed += $f;
}
note("reads: $good good, $failed without a server");
cmp_ok($good, '>', 100, 'readers have read');

my $acked = query("SELECT coalesce(sum(nrows), 0) FROM acked");
is($acked, $events, 'every generated event was committed once');
is( query("SELECT count(*), sum(price), bit_xor(hashtextextended(bids::text, 0))"
		  . " FROM bids"),
	query("SELECT (SELECT sum(nrows) FROM acked), (SELECT sum(price) FROM input),"
		  . " (SELECT bit_xor(hash) FROM acked)"),
	'the log has the acknowledged events, none lost, none doubled');
is(query("SELECT sum(late) FROM weir.views"), '0', 'nothing was late');

# How far behind in event time was the block that was most?  By the times of the
# commits, which go with the numbers but where they are nearly the same.
note("behind: " . query(<<'SQL'));
SELECT max(top - first)
FROM (SELECT min(i.date_time) AS first,
             max(max(i.date_time)) OVER (ORDER BY max(a.at)) AS top
      FROM (SELECT block, nrows, pg_xact_commit_timestamp(xmin) AS at,
                   sum(nrows) OVER (ORDER BY block) AS line
            FROM acked) a
      JOIN input i ON i.line > a.line - a.nrows AND i.line <= a.line
      GROUP BY block) b
SQL

my %batch = (
	per_window => "SELECT window_start, auction, count(*) AS n,"
	  . " sum(price) AS total, max(price) AS top, avg(price) AS mean"
	  . " FROM bids, tumble(date_time, '10 seconds')"
	  . " GROUP BY window_start, auction",
	per_bidder => "SELECT bidder, count(*), sum(price),"
	  . " count(DISTINCT auction) FROM bids WHERE price % 2 = 0"
	  . " GROUP BY bidder",
	everything => "SELECT count(*), sum(price) FROM bids",
	pair_sums  => "SELECT k, sum(v), count(*) FROM pairs GROUP BY k");
for my $view (sort keys %batch)
{
	is( query("SELECT count(*) FROM (TABLE $view EXCEPT ALL ($batch{$view})) x"),
		'0', "$view has no row too many");
	is( query("SELECT count(*) FROM (($batch{$view}) EXCEPT ALL TABLE $view) x"),
		'0', "$view has no row too few");
}
is(query("SELECT coalesce(sum(s), 0) FROM pair_sums"), '0', 'pairs cancel');
cmp_ok(query("SELECT sum(final_rows) FROM weir.views WHERE view ="
		  . " 'per_window'::regclass"),
	'>', 0, 'windows became final on the way');

# The same after one more restart.
$node->stop('fast');
$node->start;
is(query_patiently("SELECT weir.wait_for(NULL, '120 s')"), 't', 'ready again');
for my $view (sort keys %batch)
{
	is( query("SELECT (SELECT count(*) FROM (TABLE $view EXCEPT ALL"
			  . " ($batch{$view})) x) + (SELECT count(*) FROM"
			  . " (($batch{$view}) EXCEPT ALL TABLE $view) x)"),
		'0', "$view is the same after a restart");
}
my $log = slurp_file($node->logfile);
unlike($log, qr/TRAP:|PANIC:/, 'no assertion failed, no panic');
$node->stop;
done_testing();
