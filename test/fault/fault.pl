# Random load under random faults: writers whose transactions commit, roll back,
# prepare, nest, linger and vanish; readers that check what every read must show;
# and a schedule of kills, stops, cancels, locks, pauses, rebuilds, cancelled DDL,
# full disks of data and of WAL, and want of memory, locks, connections and
# worker slots.  Now and then, and at the end, everything must be consumed soon,
# and all of WeirFault::fault_checks() must hold.
#
# What is counted is what came about: a kill is a process that the server says
# ended by signal 9, or a postmaster that is gone; a cancel a statement or session
# that the server says was cancelled or terminated, or a worker that went when it
# was told to.  What servers end by a stop is no cancel.
#
# The seed is printed; WEIR_SEED replays the load and the schedule (not the
# interleaving).  WEIR_FAULTS (default 220, of which some 80 are kills) says how
# many faults, WEIR_KINDS (a pattern) of which kinds; with WEIR_MIN_KILLS there
# are more until so many have died.  WEIR_WRITERS (4) write.  WEIR_FSYNC=on: as
# if the kernel could die too.  WEIR_FAULT_SPACE and WEIR_FAULT_WAL are small
# disks that may be filled.  When WEIR_FAULT_RESULT names a file, a line of
# figures is added to it.
use strict;
use warnings;

use lib 'test/tap', 'test/fault';

use Fcntl qw(:flock SEEK_SET);
use File::Temp qw(tempdir);
use List::Util qw(shuffle);
use POSIX qw(:sys_wait_h _exit strftime);
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(usleep time);
use WeirFault;
use WeirTest;

use constant WRITERS => $ENV{WEIR_WRITERS} || 4;
use constant READERS => 2;
use constant CHECK_EVERY => 60;    # faults
use constant DRAIN       => 10;    # seconds to consume what is left
use constant BUILD       => 60;    # and those that build from all of the log
use constant CONNECTIONS => 40;

my $seed = $ENV{WEIR_SEED} // int(rand(1_000_000_000));
my $faults = $ENV{WEIR_FAULTS} // 220;
my $min_kills = $ENV{WEIR_MIN_KILLS} || 0;
diag("faults: WEIR_SEED=$seed WEIR_FAULTS=$faults");
my $started = time;

#-----------------------------------------------------------------------------
# The schedule comes from the seed alone: decks of cards, shuffled.

my %weight = (
	worker_kill      => 22,
	postmaster_kill  => 9,
	commit_kill      => 14,
	backend_kill     => 5,
	server_kill      => 4,    # checkpointer, walwriter, autovacuum, launcher
	immediate_stop   => 6,
	fast_stop        => 3,
	worker_cancel    => 12,
	worker_terminate => 12,
	client_cancel    => 5,
	client_terminate => 5,
	launcher_terminate => 2,
	pause            => 4,
	refresh          => 4,
	lock             => 4,
	no_slots         => 2,
	no_connections   => 2,
	no_locks         => 2,
	memory_limit     => 2,
	full_disk        => 2,
	full_wal         => 2,
	file_limit       => 2,
	ddl_cancel       => 4,
	create           => 4,
	point_cancel     => 8,
	point_error      => 6,
	point_fatal      => 6,
	point_kill       => 8,
	checkpoint       => 4);

# How often these came about, the server's log says: a statement cancelled or a
# session terminated ..
my %cancelling = map { $_ => 1 }
  qw(client_cancel client_terminate worker_cancel ddl_cancel point_cancel);

# .. or somebody met with what there was no more of.
my %bite = (
	full_disk      => qr/ 53100 |No space left on device/,
	file_limit     => qr/File too large/,
	memory_limit   => qr/ 53200 |[Cc]annot allocate memory|failed to map segment/,
	no_slots       => qr/no background worker is free/,
	no_connections => qr/too many clients already|remaining connection slots/,
	no_locks       => qr/out of shared memory/);

my $kinds = $ENV{WEIR_KINDS} // '.';
my @kinds = grep { /$kinds/ } sort keys %weight;
srand($seed);
my @schedule;
while (@schedule < $faults)
{
	push @schedule, map {
		{
			kind => $_,
			wait => 0.1 + rand(0.7),
			pick => rand(),
			long => 0.2 + rand(0.8)
		}
	} shuffle(map { ($_) x $weight{$_} } @kinds);
}
$#schedule = $faults - 1;

# Should too few of them come to be.  Not workers alone: one that is killed again
# and again is started once a minute.
my @more = map {
	{
		kind => (qw(worker_kill backend_kill commit_kill server_kill))[ $_ % 4 ],
		wait => 0.1 + rand(0.7),
		pick => rand(),
		long => 0.2 + rand(0.8),
		needed => 1
	}
} 1 .. $min_kills;

# What the run is like as a whole.
my $interval = ('50ms', '300ms', '2s')[ int(rand(3)) ];
my $workers  = 1 + int(rand(3));
note("checkpoints every $interval, $workers workers");

#-----------------------------------------------------------------------------
# The server, quick to start: a crash on a disk would wait for it.

# Who aborts leaves a core, without what is shared.
system('prlimit', '--pid', $$, '--core=unlimited:');
if (open(my $filter, '>', '/proc/self/coredump_filter'))
{
	print $filter "0x31\n";
	close($filter);
}

my $dir  = tempdir(CLEANUP => 1);
my $node = PostgreSQL::Test::Cluster->new('fault');
my $wal = $ENV{WEIR_FAULT_WAL};
$node->init(extra => [ '--no-locale', '--encoding=UTF8', '--wal-segsize=1',
	$wal ? "--waldir=$wal/pg_wal" : () ]);
$node->append_conf('postgresql.conf', slurp_file('test/pg_weir.conf'));
$node->append_conf('postgresql.conf', <<"CONF");
restart_after_crash = on
weir.checkpoint_interval = '$interval'
weir.max_workers = $workers
max_prepared_transactions = 60
max_wal_size = '64MB'
min_wal_size = '8MB'
wal_level = replica
log_min_messages = warning
log_min_error_statement = panic
log_line_prefix = '%m [%p] %b %a %e '
max_worker_processes = 6
deadlock_timeout = '200ms'
max_parallel_workers = 6
max_connections = ${\ CONNECTIONS }
CONF
$node->append_conf('postgresql.conf', 'fsync = ' . ($ENV{WEIR_FSYNC} // 'off'));
$node->start;

# A database on a small disk of its own, if there is one.
my $space = $ENV{WEIR_FAULT_SPACE};
if ($space)
{
	mkdir("$space/pg") or die "$space/pg: $!";
	$node->safe_psql('postgres', "CREATE TABLESPACE small LOCATION '$space/pg'");
}
$node->safe_psql('postgres',
	'CREATE DATABASE load' . ($space ? ' TABLESPACE small' : ''));
$node->safe_psql('load', 'CREATE EXTENSION pg_weir; CREATE EXTENSION amcheck');
$node->safe_psql('load', fault_schema());
my $debug = $node->psql('load', 'SHOW weir.debug_points') == 0;

# What there are no means for.
my %not_run = map { $_ => 1 } (
	$space ? () : 'full_disk', $wal ? () : 'full_wal',
	$debug ? () : grep { /^point_/ } keys %weight);
my $connstr = $node->connstr('load');
my $views   = fault_views();

sub put_file
{
	my ($name, $text, $mode) = @_;

	open(my $f, $mode // '>', "$dir/$name") or die "$name: $!";
	flock($f, LOCK_EX);
	print $f $text;
	close($f);
}

# Run a script in psql; its lines go to $line->(), its errors to a file.
# Returns whether it came to its end.
sub run_script
{
	my ($who, $sql, $line) = @_;

	put_file("$who.sql", $sql);
	my $pid = open(my $out, '-|') // die "fork: $!";
	if (!$pid)
	{
		open(STDIN,  '<',  '/dev/null');
		open(STDERR, '>>', "$dir/$who.err");
		exec('psql', '-XqAt', '-v', 'ON_ERROR_STOP=1', '-v',
			'VERBOSITY=verbose', '-v', 'SHOW_CONTEXT=never', '-d', $connstr,
			'-f', "$dir/$who.sql")
		  or _exit(127);
	}
	while (my $l = <$out>)
	{
		chomp $l;
		$line->($l) if $line;
	}
	return close($out);
}

# One statement's first line, or undef.
sub query
{
	my ($sql, $who) = @_;
	my $first;
	my $ok = run_script($who // "driver$$",
		"SET statement_timeout = '100s';\n$sql\n",
		sub { $first //= $_[0] });

	return $ok ? $first // '' : undef;
}

sub query_patiently
{
	my ($sql, $who) = @_;

	for (1 .. 600)
	{
		my $out = query($sql, $who);
		return $out if defined $out;
		usleep(100_000);
	}
	die "server did not come back, or fails: $sql";
}

# ---- start and stop, without the test's output growing by the log each time

sub start_node
{
	for (1 .. 600)
	{
		my $rc = system('pg_ctl -w -t 60 -D ' . $node->data_dir . ' -l '
			  . $node->logfile . ' start >/dev/null 2>&1');
		if ($rc == 0)
		{
			$node->_update_pid(1);
			return;
		}
		usleep(50_000);
	}
	BAIL_OUT('server did not start');
}

sub stop_node
{
	my ($mode) = @_;
	my $rc = system('pg_ctl -w -t 60 -D ' . $node->data_dir
		  . " -m $mode stop >/dev/null 2>&1");

	$node->{_pid} = undef if $rc == 0;
	return $rc == 0;
}

sub children
{
	my $postmaster = $node->{_pid};

	return grep { $_ != $postmaster }
	  map { /^\s*(\d+)/ ? $1 : () } `ps -o pid= --ppid $postmaster`;
}

#-----------------------------------------------------------------------------
# What the server's log says of the faults.

my %injected = map { $_ => 0 } keys %weight;
my %bites    = map { $_ => 0 } keys %bite;
my %shot;               # processes that were sent signal 9
my @shot_dead;          # those of which the postmaster says that they died of it
my $postmasters = 0;    # killed
my $cancels     = 0;
my $stopped     = 0;    # sessions ended by a fast stop
my $slow_stops  = 0;
my $log_read    = 0;

# What has come to the log since the last call, as the doing of a fault.
# Returns how many statements and sessions were ended, and how many lines there
# are of what there was no more of.
sub account
{
	my ($kind) = @_;
	my $text = slurp_file($node->logfile, $log_read);
	my ($ended, $bitten) = (0, 0);

	$text =~ s/[^\n]*\z//;
	$log_read += length($text);
	for my $l (split /\n/, $text)
	{
		push @shot_dead, $1
		  if $l =~ / postmaster .*\(PID (\d+)\) was terminated by signal 9\b/;
		if ($l =~ /ERROR: .*canceling statement due to user request/
			|| $l =~ /debug point "[^"]*" cancels$/)
		{
			$ended++;
		}
		elsif ($l =~ / client backend .*FATAL: .*terminating connection due to administrator command/)
		{
			if ($kind eq 'fast_stop') { $stopped++ }
			else                      { $ended++ }
		}
		$bitten++ if $bite{$kind} && $l =~ $bite{$kind};
	}
	$cancels += $ended;
	# a panic is the answer to this
	unlink(cores()) if $kind eq 'full_wal';
	return ($ended, $bitten);
}

# Where the kernel leaves them unless it is told otherwise.
sub cores
{
	return glob($node->data_dir . '/core*');
}

sub kills
{
	return @shot_dead + $postmasters;
}

# Whether the log says so behind the offset, now or within some seconds, in
# which something is done again and again.
sub log_says
{
	my ($pattern, $offset, $seconds, $meanwhile) = @_;
	my $until = time + $seconds;

	while (slurp_file($node->logfile, $offset) !~ $pattern)
	{
		return 0 if time > $until;
		$meanwhile->() if $meanwhile;
		usleep(20_000);
	}
	return 1;
}

# Whether a process is gone, or goes within some seconds.
sub gone
{
	my ($pid) = @_;

	for (1 .. 500)
	{
		return 1 unless kill(0, $pid);
		usleep(20_000);
	}
	return 0;
}

#-----------------------------------------------------------------------------
# Writers.  A script is a session of several transactions; the \echo behind
# each COMMIT is the acknowledgement.

# How event time goes by: ten times as fast as the clock.
sub event_now
{
	my $t = 1_767_225_600 + (time - $started) * 10;    # 2026-01-01

	return strftime('%Y-%m-%d %H:%M:%S', gmtime($t))
	  . sprintf('.%03dZ', ($t - int($t)) * 1000);
}

# Rows by COPY, into the stream and its twin.
sub copy_rows
{
	my ($tx, $first, $n) = @_;
	my $rows = '';

	for my $i (1 .. $n)
	{
		my $t = 1_767_225_600 + (time - $started) * 10 - rand(5);
		my $ts = strftime('%Y-%m-%d %H:%M:%S', gmtime($t))
		  . sprintf('.%03dZ', ($t - int($t)) * 1000);

		$rows .= join(',',
			$tx * 10000 + $first + $i,
			$tx, int(rand(40)), int(rand(1100)) - 100,
			rand() < 0.3 ? '' : '"c' . int(rand(20)) . '"', $ts)
		  . "\n";
	}
	return
	  "COPY ev FROM STDIN (FORMAT csv);\n$rows\\.\n"
	  . "COPY ev_twin FROM STDIN (FORMAT csv);\n$rows\\.\n";
}

# The statements of a transaction, with savepoints in savepoints.  $$next is
# the first free row number, of which a transaction has 10,000.
sub statements
{
	my ($tx, $next, $depth) = @_;
	my $sql = '';

	for (1 .. 1 + int(rand(3)))
	{
		my $r = rand();
		my $n = rand() < 0.8 ? 1 + int(rand(10)) : 1 + int(rand(200));
		my $first = $$next;
		my $t = event_now();

		last if $first > 9000;
		$$next += 210;
		if ($r < 0.35)
		{
			$sql .= "SELECT put_ev($tx, $first, $n, '$t', $seed);\n";
		}
		elsif ($r < 0.50)
		{
			$sql .= copy_rows($tx, $first, $n);
		}
		elsif ($r < 0.70)
		{
			# ids of pairs are doubled
			$sql .= "SELECT put_pairs($tx, $first, $n, $seed);\n";
		}
		elsif ($r < 0.80)
		{
			$sql .= "SELECT put_brief($tx, $first, $n, $seed);\n";
		}
		elsif ($r < 0.86)
		{
			$sql .= "SELECT put_caught($tx, $first, '$t', $seed);\n";
		}
		elsif ($depth < 8)
		{
			my $name = "s$depth";

			$sql .= "SAVEPOINT $name;\n" . statements($tx, $next, $depth + 1);
			$sql .= rand() < 0.5
			  ? "ROLLBACK TO $name;\n"
			  : "RELEASE $name;\n";
		}
	}
	return $sql;
}

sub transaction
{
	my ($tx) = @_;
	my $next = 0;
	my $r    = rand();
	my $sql  = '';

	$sql .= "SET weir.compression = " . (rand() < 0.5 ? 'lz4' : 'off') . ";\n"
	  if rand() < 0.2;

	# alone, as clients do that know no transactions: its own acknowledgement
	if ($r < 0.1)
	{
		my $t = event_now();

		return $sql . "WITH t AS (INSERT INTO done VALUES ($tx))"
		  . " SELECT put_ev($tx, 0, 1, '$t', $seed);\n\\echo ack $tx\n";
	}

	$sql .= "BEGIN;\n" . statements($tx, \$next, 0);

	# slow ones hold back the horizon of those that come after them
	if (rand() < 0.03)
	{
		$sql .= sprintf("SELECT pg_sleep(%.2f);\n", rand(rand() < 0.1 ? 8 : 2))
		  . statements($tx, \$next, 0);
	}
	$sql .= "INSERT INTO done VALUES ($tx);\n";
	if    ($r < 0.20) { $sql .= "ROLLBACK;\n\\echo undone $tx\n" }
	elsif ($r < 0.28)
	{
		$sql .= "PREPARE TRANSACTION 'p$tx';\n\\echo prepared $tx\n"
		  . "COMMIT PREPARED 'p$tx';\n\\echo ack $tx\n";
	}
	elsif ($r < 0.31)
	{
		$sql .= "PREPARE TRANSACTION 'p$tx';\n\\echo prepared $tx\n"
		  . "ROLLBACK PREPARED 'p$tx';\n\\echo undone $tx\n";
	}
	elsif ($r < 0.34)
	{
		# somebody else ends it: soon, or much later
		my $name = ($r < 0.335 ? 'p' : 'long') . $tx;

		$sql .= "PREPARE TRANSACTION '$name';\n\\echo prepared $tx\n";
	}
	elsif ($r < 0.36)
	{
		# the client dies in the middle of a COPY
		put_file("vanish$tx.csv", "1,$tx,1,1,x,2026-01-01 00:00Z\n" x 500);
		$sql .= "\\copy ev FROM PROGRAM 'cat $dir/vanish$tx.csv; echo >> $dir/vanished; kill -9 \$PPID' (FORMAT csv)\n";
	}
	elsif ($r < 0.37) { $sql .= "\\! kill -9 \$PPID\n" }
	else              { $sql .= "COMMIT;\n\\echo ack $tx\n" }
	return $sql;
}

# A debug point for one of the transactions to come, if the driver wants it.
sub commit_fault
{
	my $name = "$dir/commit_fault";

	return '' unless rename($name, "$name.$$");
	my $point = slurp_file("$name.$$");
	unlink("$name.$$");
	put_file('commit_fault_taken', '');
	return "SET weir.debug_points = '$point=kill';\n";
}

# Whose connection fails tries again, but a postmaster of 15 that stops waits
# until there is a moment without a client who knocks.
sub breathe
{
	usleep(50_000 + rand(100_000));
}

sub writer
{
	my ($w) = @_;
	my $script = 0;

	while (!-e "$dir/stop")
	{
		if (-e "$dir/hold")
		{
			put_file("idle.$w", '');
			usleep(20_000) while -e "$dir/hold" && !-e "$dir/stop";
			unlink("$dir/idle.$w");
			next;
		}

		# each script has its own numbers
		srand($seed + $w * 1_000_003 + $script * 17);
		my $sql = "SET statement_timeout = '60s';\n";

		# what does not wait for the disk may be lost, but whole or not at all
		my $soft = rand() < 0.2;
		$sql .= "SET synchronous_commit = off;\n" if $soft;
		my @all = map { ($w * 1_000_000 + $script) * 10 + $_ } 0 .. int(rand(8));
		$script++;
		foreach my $tx (@all)
		{
			$sql .= commit_fault() . transaction($tx);
		}
		$sql =~ s/^\\echo ack/\\echo soft/mg if $soft;
		run_script("writer$w", $sql,
			sub { put_file('answers', "$_[0]\n", '>>') if $_[0] =~ /^\w+ \d/ })
		  or breathe();

		# somebody must end what was left prepared
		if (rand() < 0.2)
		{
			my $how = rand() < 0.6 ? 'COMMIT' : 'ROLLBACK';

			run_script("writer$w",
				"SELECT format('$how PREPARED %L', gid) FROM pg_prepared_xacts"
				  . " WHERE prepared < now() - CASE WHEN gid ~ '^long'"
				  . " THEN interval '20 seconds' ELSE interval '1 second' END"
				  . " ORDER BY prepared LIMIT 5 \\gexec\n",
				undef);
		}
	}
	put_file("idle.$w", '');
}

#-----------------------------------------------------------------------------
# Readers.  What they see and must not goes to the file "wrong".

sub reader
{
	my ($r) = @_;

	srand($seed + 7777 * $r);
	while (!-e "$dir/stop")
	{
		my %last;
		my $sql = "SET statement_timeout = '60s';\n";

		# what a checkpoint has saved, whatever happened since
		my ($least, $lowest) =
		  -e "$dir/floor" ? split / /, slurp_file("$dir/floor") : (0, '-inf');

		# all in one session, so the server lives from the first to the last
		for (1 .. 12)
		{
			$sql .= "SELECT 'pairs', coalesce(sum(s), 0), coalesce(sum(n), 0) FROM pairs;\n";
			$sql .= "SELECT 'watermark', extract(epoch FROM weir.watermark('ev')), 0;\n";
			$sql .= "SELECT 'sets', count(*), 0 FROM (SELECT FROM sets GROUP BY window_start"
			  . " HAVING sum(n) FILTER (WHERE g = 0) IS DISTINCT FROM sum(n) FILTER (WHERE g = 1)"
			  . " OR sum(s) FILTER (WHERE g = 0) IS DISTINCT FROM sum(s) FILTER (WHERE g = 1)) x;\n"
			  if rand() < 0.3;
			$sql .= "SELECT 'arrays', count(*), 0 FROM arrays WHERE n <> cardinality(ids);\n"
			  if rand() < 0.3;
			$sql .= "SELECT 'empty', count(*), 0 FROM per_window WHERE n <= 0 OR lo > hi;\n"
			  if rand() < 0.3;
			$sql .= "SELECT 'twice', count(*), 0 FROM (SELECT FROM per_window"
			  . " GROUP BY window_start, k HAVING count(*) > 1) x;\n"
			  if rand() < 0.5;
			$sql .= "SELECT 'never less in totals', coalesce(sum(n), 0), 0 FROM totals;\n"
			  if rand() < 0.3;
			$sql .= "SELECT 'never less in arrivals', coalesce(sum(n), 0), 0 FROM arrivals;\n"
			  if rand() < 0.3;
			$sql .= "SELECT 'counted', count(*), 0 FROM counted WHERE n > 50;\n"
			  if rand() < 0.3;
			# an old snapshot, while windows move from memory to the heap
			$sql .= "BEGIN ISOLATION LEVEL REPEATABLE READ;\n"
			  . "SELECT 'never less in arrays', count(*), coalesce(sum(n), 0) FROM arrays;\n"
			  . "SELECT FROM pg_sleep(0.2);\n"
			  . "SELECT 'never less in arrays', count(*), coalesce(sum(n), 0) FROM arrays;\n"
			  . "COMMIT;\n"
			  if rand() < 0.1;
			$sql .= "SELECT 'one', abs(count(*) - 1), 0 FROM everything;\n";
			$sql .= "INSERT INTO seen_final SELECT window_start, k, n, s FROM per_window"
			  . " WHERE weir.is_final('per_window', window_start + interval '10 seconds')"
			  . " ORDER BY window_start DESC LIMIT 60 ON CONFLICT DO NOTHING;\n"
			  if rand() < 0.2;
			$sql .= "INSERT INTO seen_emitted SELECT * FROM finals"
			  . " ORDER BY bin DESC LIMIT 20 ON CONFLICT DO NOTHING;\n"
			  if rand() < 0.2;
		}
		run_script(
			"reader$r", $sql,
			sub {
				return if $_[0] eq '';
				my ($what, $x, $y) = split /\|/, $_[0];
				my $wrong = '';

				put_file("reads.$r", "$what\n", '>>');
				if ($what eq 'pairs')
				{
					$wrong = "sum $x count $y" if $x != 0 || $y % 2;
					$wrong = "count $y after $last{n}"
					  if defined $last{n} && $y < $last{n};
					$wrong = "count $y, and $least were saved" if $y < $least;
					$last{n} = $y;
				}
				elsif ($what eq 'watermark')
				{
					$x = '-inf' if $x eq '' || $x eq '-Infinity';
					$wrong = "$x after $last{w}"
					  if defined $last{w} && $x + 0 < $last{w} + 0;
					$wrong = "$x, and $lowest was saved" if $x + 0 < $lowest + 0;
					$last{w} = $x;
				}
				elsif ($what =~ /^never less/)
				{
					my @old = @{ $last{$what} // [ 0, 0 ] };

					$wrong = "$x, $y after $old[0], $old[1]"
					  if $x < $old[0] || $y < $old[1];
					$last{$what} = [ $x, $y ];
				}
				elsif (defined $x && $x ne '0') { $wrong = "$x" }
				put_file('wrong', "reader $r: $what: $wrong\n", '>>') if $wrong;
			}) or breathe();
	}
}

# A child must never get to this process's END blocks: they stop the server.
sub child
{
	my ($code, @args) = @_;
	my $pid = fork() // die "fork: $!";

	return $pid if $pid;
	eval { $code->(@args); 1 } or put_file('died', $@, '>>');
	_exit(0);
}

#-----------------------------------------------------------------------------
# Faults.  Each says whether it came to be, unless the log does (account()).

sub worker_pid
{
	my ($pick) = @_;
	my $pids =
	  query("SELECT string_agg(pid::text, ' ' ORDER BY pid) FROM weir.workers")
	  // '';
	my @pids = split / /, $pids;

	return @pids ? $pids[ int($pick * @pids) ] : undef;
}

sub kill_pid
{
	my ($pid) = @_;
	my $offset = -s $node->logfile;

	return 0 unless defined $pid && $pid =~ /^\d+$/ && kill('KILL', $pid);
	$shot{$pid} = 1;
	return log_says(qr/\(PID $pid\) was terminated by signal 9\b/, $offset, 5);
}

# Workers and launchers end by themselves, and say nothing.
sub terminate_pid
{
	my ($pid) = @_;

	return 0
	  unless defined $pid
	  && $pid =~ /^\d+$/
	  && (query("SELECT pg_terminate_backend($pid)") // '') eq 't';
	return 0 unless gone($pid);
	$cancels++;
	return 1;
}

sub kill_postmaster
{
	my $pid = $node->{_pid};

	weir_kill9($node);
	my $dead = !kill(0, $pid);
	$postmasters += $dead;
	return $dead;
}

# Of the views that can be rebuilt.
sub some_view
{
	my ($pick) = @_;
	my @names = grep { $_ ne 'kept' && $_ ne 'skips' } sort keys %$views;

	return $names[ int($pick * @names) ];
}

# At some step of a batch or a checkpoint, in whichever worker comes there.
my @points = qw(batch-start batch-folded publish state-publish state-publish-end
  checkpoint-start checkpoint-stamped checkpoint-closed late-write
  checkpoint-position checkpoint-commit checkpoint-committed);

sub worker_point
{
	my ($f, $action, $text) = @_;
	my @can    = grep { $action eq 'kill' || !/^state-/ } @points;
	my $point  = $can[ int($f->{pick} * @can) ];
	my $nth    = 1 + int($f->{long} * 10) % 4;
	my $offset = -s $node->logfile;

	return 0 unless $debug;
	query("ALTER SYSTEM SET weir.debug_points = '$point=$action\@$nth';"
		  . ' SELECT pg_reload_conf();') // return 0;
	usleep($f->{long} * 1e6);
	query_patiently('ALTER SYSTEM RESET weir.debug_points;'
		  . ' SELECT pg_reload_conf();');
	query_patiently('SELECT count(weir.resume(view)) FROM weir.views'
		  . " WHERE state = 'failed' AND error ~ '^debug point'");
	return index(slurp_file($node->logfile, $offset),
		sprintf($text, $point)) >= 0;
}

# One more view, made and dropped under load: which of the views it is like.
my $extra = '';

# So many of them, at whatever they are doing.
sub client_signal
{
	my ($function) = @_;

	query("SELECT signal_clients('$function', 30)");
}

# Statements on one more view, each cancelled or ended on its way.
my $churn = 'per_window';

sub cancel_ddl
{
	my ($f) = @_;
	my $n = 0;
	my @statements = (
		"CREATE MATERIALIZED VIEW IF NOT EXISTS churn USING continuous AS $views->{$churn}{query}",
		'REFRESH MATERIALIZED VIEW churn',
		"ALTER MATERIALIZED VIEW churn SET (retention = '1000 days')",
		'CREATE INDEX ON churn (k)',
		'ALTER MATERIALIZED VIEW churn RENAME TO churned;'
		  . ' ALTER MATERIALIZED VIEW churned RENAME TO churn',
		"SELECT weir.pause('churn'), weir.resume('churn')",
		'TRUNCATE brief',
		'DROP MATERIALIZED VIEW IF EXISTS churn');

	foreach my $sql (@statements)
	{
		my $child = child(
			sub {
				run_script('ddl',
					"SET application_name = 'ddl'; SET lock_timeout = '5s';\n"
					  . "SELECT FROM pg_sleep(0.1);\nBEGIN; $sql; COMMIT;\n");
			});
		my $delay = 0.02 * (($f->{pick} * 7919 * ++$n) % 1000) / 1000;
		my $function = ($f->{long} * 1000 + $n) % 2 ? 'pg_cancel_backend' : 'pg_terminate_backend';

		query("SELECT signal_ddl('$function', $delay)");
		waitpid($child, 0);
	}
}

my %fault = (
	worker_kill     => sub {
		my ($f) = @_;
		my $pid;

		# after a crash workers take a moment
		for (1 .. ($f->{needed} ? 30 : 1))
		{
			$pid = worker_pid($f->{pick}) and last;
			usleep(100_000);
		}
		my $dead = kill_pid($pid);
		note($pid ? "worker $pid " . ($dead ? 'is dead' : 'lives') : 'no worker')
		  if !$dead;
		$dead;
	},
	postmaster_kill => sub {
		my $dead = kill_postmaster();

		start_node();
		$dead;
	},
	commit_kill     => sub {
		my ($f) = @_;

		# in the midst of a commit, or what else the client may be at
		if ($debug)
		{
			my @points =
			  qw(stream_pre_commit order_publish log_append stream_write);

			my $offset = -s $node->logfile;

			unlink("$dir/commit_fault_taken");
			put_file('commit_fault', $points[ int($f->{pick} * @points) ]);
			for (1 .. 200)
			{
				last if -e "$dir/commit_fault_taken";
				usleep(10_000);
			}
			unlink("$dir/commit_fault");

			# nobody dies if no commit follows
			return -e "$dir/commit_fault_taken"
			  && log_says(qr/server process \(PID \d+\) was terminated by signal 9\b/,
				$offset, 3);
		}
		return kill_pid(query('SELECT committer();'));
	},
	backend_kill => sub {
		kill_pid(query("SELECT pid FROM pg_stat_activity WHERE"
				  . " backend_type = 'client backend' AND pid <> pg_backend_pid()"
				  . ' ORDER BY random() LIMIT 1'));
	},
	server_kill => sub {
		kill_pid(query("SELECT pid FROM pg_stat_activity WHERE"
				  . " backend_type <> 'client backend' ORDER BY random() LIMIT 1"));
	},
	immediate_stop => sub {
		stop_node('immediate') or return 0;
		start_node();
		1;
	},
	fast_stop => sub {
		# A server that recovers from a crash of its own does not end by that: the
		# postmaster waits for its checkpointer, and has not told it (15).
		query_patiently('SELECT 1');
		my $before = time;
		my $done = stop_node('fast');

		$slow_stops++ if time - $before > 20 * crowd();
		kill_postmaster() if !$done;
		start_node();
		$done;
	},
	worker_cancel => sub {
		my $pid = worker_pid($_[0]{pick}) // return;
		query("SELECT pg_cancel_backend($pid)");
	},
	worker_terminate => sub { terminate_pid(worker_pid($_[0]{pick})) },
	client_cancel    => sub { client_signal('pg_cancel_backend') },
	client_terminate => sub { client_signal('pg_terminate_backend') },
	launcher_terminate => sub {
		terminate_pid(query('SELECT pid FROM pg_stat_activity'
				  . " WHERE backend_type = 'pg_weir launcher'"));
	},
	pause => sub {
		my ($f) = @_;
		my $view = some_view($f->{pick});

		my $done = defined query("SELECT weir.pause('$view')");
		usleep($f->{long} * 1e6);
		query_patiently("SELECT weir.resume('$view')");
		$done;
	},
	refresh => sub {
		my $view = some_view($_[0]{pick});

		defined query("REFRESH MATERIALIZED VIEW $view");
	},
	lock => sub {
		my ($f) = @_;
		my $view = $f->{pick} < 0.2 ? 'late_events' : some_view($f->{pick});

		# a materialized view cannot be locked by name
		my $lock = $view eq 'late_events'
		  ? "LOCK TABLE $view IN ACCESS EXCLUSIVE MODE"
		  : "ALTER MATERIALIZED VIEW $view RENAME TO locked";
		defined query("SET lock_timeout = '5s'; BEGIN; $lock;"
			  . " SELECT pg_sleep($f->{long}); ROLLBACK;");
	},
	# parallel workers take every slot that ended workers give back, while the
	# launcher is slow
	no_slots => sub {
		my ($f) = @_;
		my $launcher = query('SELECT pid FROM pg_stat_activity'
			  . " WHERE backend_type = 'pg_weir launcher'") || return;
		my $pids =
		  query("SELECT string_agg(pid::text, ' ') FROM weir.workers") || return;
		my @hogs = map {
			my $h = $_;

			child(
				sub {
					run_script("hog$h",
						"\\set ON_ERROR_STOP 0\n"
						  . "SET statement_timeout = '1s'; SET parallel_setup_cost = 0;"
						  . " SET parallel_tuple_cost = 0;"
						  . " SET min_parallel_table_scan_size = 0;"
						  . " SET max_parallel_workers_per_gather = 6;\n"
						  . "SELECT count(pg_sleep(0.05)) FROM hog;\n" x 5);
				});
		} 1 .. 3;
		my $offset = -s $node->logfile;

		usleep(3e5);
		kill('STOP', $launcher);
		# whatever becomes of this process
		my $wake = child(
			sub {
				usleep(3e5 + $f->{long} * 1e6);
				kill('CONT', $launcher);
			});
		kill('TERM', split / /, $pids);
		waitpid($wake, 0);
		log_says($bite{no_slots}, $offset, 4);
		waitpid($_, 0) foreach @hogs;
	},
	# everybody is there already
	no_connections => sub {
		my ($f) = @_;
		my @crowd = map {
			my $c = $_;

			child(sub { run_script("crowd$c", "SELECT pg_sleep(3);\n") })
		} 1 .. CONNECTIONS;
		my $full = 0;

		for (1 .. 20)
		{
			my $n = query('SELECT count(*) FROM pg_stat_activity'
				  . " WHERE backend_type = 'client backend'");
			$full = 1 if !defined $n;
			last if $full;
			query('SELECT pg_terminate_backend(pid) FROM weir.workers');
		}
		waitpid($_, 0) foreach @crowd;
	},
	# somebody holds all locks that shared memory has room for
	no_locks => sub {
		query("SELECT hold_locks($_[0]{long})");
	},
	# no process may have much more memory than it has
	memory_limit => sub {
		my ($f) = @_;
		my %size =
		  map { /^\s*(\d+)\s+(\d+)/ ? ($1 => $2) : () }
		  `ps -o pid=,vsz= --ppid $node->{_pid}`;
		my $more   = 512 + int($f->{pick} * 8192);
		my $offset = -s $node->logfile;
		my $limit  = sub {
			system('prlimit', '--pid', $_,
				'--as=' . 1024 * ($size{$_} + $more) . ':')
			  foreach keys %size;
		};

		$limit->();
		usleep($f->{long} * 2e6);
		log_says(
			$bite{memory_limit},
			$offset, 8,
			sub {
				# those that came since, and none of them may grow
				$more = 64;
				%size =
				  map { /^\s*(\d+)\s+(\d+)/ ? ($1 => $2) : () }
				  `ps -o pid=,vsz= --ppid $node->{_pid}`;
				$limit->();
			});
		system("for p in @{[ children() ]}; do prlimit --pid \$p --as=unlimited:; done"
			  . ' >/dev/null 2>&1');
	},
	ddl_cancel => sub { cancel_ddl($_[0]) },
	# no WAL can be written: PostgreSQL's answer is a panic
	full_wal => sub {
		my ($f) = @_;
		my $from = -s $node->logfile;
		my $panic;

		return 0 unless $wal;
		system("dd if=/dev/zero of=$wal/balloon bs=64k >/dev/null 2>&1");
		# what was recycled is used up first
		$panic = log_says(qr/PANIC:.*No space left/,
			$from, 8, sub { query('SELECT pg_switch_wal()') });
		usleep($f->{long} * 1e6);
		unlink("$wal/balloon") or die "balloon: $!";

		# when recovery met the full disk too, nobody tries once more
		for (1 .. 100)
		{
			return $panic if defined query('SELECT 1');
			last if !kill(0, $node->{_pid});
			usleep(100_000);
		}
		start_node() if !kill(0, $node->{_pid});
		return $panic;
	},
	# the small disk is full for a while
	full_disk => sub {
		my ($f) = @_;

		return unless $space;
		my $offset = -s $node->logfile;
		system("dd if=/dev/zero of=$space/balloon bs=64k >/dev/null 2>&1");
		usleep($f->{long} * 1.5e6);
		log_says($bite{full_disk}, $offset, 8);
		unlink("$space/balloon") or die "balloon: $!";
	},
	# no file may grow beyond what it has; views may fail of that
	file_limit => sub {
		my ($f) = @_;
		my $size = query("SELECT greatest(pg_relation_size('ev'), 1048576)")
		  // return;
		my $limit = sub {
			my ($soft) = @_;
			my @pids = ($node->{_pid}, children());

			system("for p in @pids; do prlimit --pid \$p --fsize=$soft:; done"
				  . " >/dev/null 2>&1");
		};

		# once more for those that came between
		my $offset = -s $node->logfile;
		$limit->($size);
		$limit->($size);
		usleep($f->{long} * 1e6);
		log_says($bite{file_limit}, $offset, 8, sub { $limit->($size) });
		$limit->('unlimited');
		$limit->('unlimited');
	},
	point_cancel => sub {
		worker_point($_[0], 'cancel', 'debug point "%s" cancels');
	},
	point_error => sub {
		worker_point($_[0], 'error', 'debug point "%s" raised an error');
	},
	point_fatal => sub {
		worker_point($_[0], 'fatal', 'debug point "%s" ended the process');
	},
	point_kill => sub {
		worker_point($_[0], 'kill', 'debug point "%s" kills');
	},
	# a new view catches up with what all the others have met
	create => sub {
		my ($f) = @_;
		my $like = some_view($f->{pick});
		my $view = $views->{$like};
		my @with;

		return 0
		  if !defined query("SET lock_timeout = '5s';"
			  . ' DROP MATERIALIZED VIEW IF EXISTS extra');
		push @with, $view->{with} if $view->{with};
		push @with, "allowed_lateness = '$view->{lateness} seconds'"
		  if $view->{lateness};
		$extra = $like;
		return defined query("SET lock_timeout = '5s';"
			  . ' CREATE MATERIALIZED VIEW extra USING continuous'
			  . (@with ? ' WITH (' . join(', ', @with) . ')' : '')
			  . " AS $view->{query}");
	},
	# what a checkpoint that has answered has saved, no crash takes away
	checkpoint => sub {
		my $saved = query("SELECT sum(n) || ' ' || coalesce(extract(epoch FROM"
			  . " weir.watermark('ev')), '-infinity') FROM pairs") // return 0;

		return 0 if $saved eq '' || !defined query('SELECT weir.checkpoint()');
		# commits that did not wait are on disk when one does that came later
		return 0
		  if !defined query("SELECT pg_logical_emit_message(true, 'fault', 'floor')");
		put_file('floor.new', $saved);
		rename("$dir/floor.new", "$dir/floor");
		1;
	});

#-----------------------------------------------------------------------------
# The invariants.

my %sum = (lost => 0, doubled => 0, wrong => 0, checks => 0, slowest => 0);
my %failed_views;

sub resume_failed
{
	my $failed = 0;

	run_script(
		'check',
		"SELECT view, replace(error, E'\\n', ' ') FROM weir.views"
		  . " WHERE state = 'failed';\n",
		sub {
			note("failed: $_[0]");
			$failed_views{ $_[0] }++;
			$failed = 1;
		});
	return unless $failed;
	query_patiently(
		"SELECT count(weir.resume(view)) FROM weir.views WHERE state = 'failed'");
}

# One launcher, and workers that are known, as many as there may be; what is not
# so in half a minute.
sub crew
{
	my $odd;

	for (1 .. 300)
	{
		$odd = query_patiently(
			"SELECT concat(CASE WHEN launchers <> 1 THEN launchers || ' launchers; ' END,"
			  . " CASE WHEN workers NOT BETWEEN 1 AND $workers THEN workers || ' workers; ' END,"
			  . " CASE WHEN strangers > 0 THEN strangers || ' workers that weir.workers does not show; ' END)"
			  . " FROM (SELECT count(*) FILTER (WHERE backend_type = 'pg_weir launcher') AS launchers,"
			  . " count(*) FILTER (WHERE backend_type = 'pg_weir worker') AS workers,"
			  . " count(*) FILTER (WHERE backend_type = 'pg_weir worker' AND NOT EXISTS"
			  . " (SELECT FROM weir.workers w WHERE w.pid = a.pid)) AS strangers"
			  . " FROM pg_stat_activity a) x");
		last if $odd eq '';
		usleep(100_000);
	}
	return $odd;
}

# The stream brief keeps some 200 kB, which are 2,500 events; a trimmer that
# cannot have its lock comes again.
sub retained
{
	my $events;

	for (1 .. 30)
	{
		$events = query_patiently('SELECT count(*) FROM brief');
		return '' if $events <= 10_000;
		usleep(500_000);
		query_patiently('SELECT weir.checkpoint()');
	}
	return "retention has left $events events; ";
}

# How many times as long something may take since others use the machine, too:
# our own processes are about four for each processor.
sub crowd
{
	my ($load) = -r '/proc/loadavg' ? split(' ', slurp_file('/proc/loadavg')) : 0;
	my $cpus = () = (-r '/proc/cpuinfo' ? slurp_file('/proc/cpuinfo') : '') =~ /^processor\b/mg;

	return $cpus && $load > 4 * $cpus ? $load / (4 * $cpus) : 1;
}

# What is to be said of views that let one wait.
sub who_is_late
{
	my ($seconds) = @_;

	run_script('late', q{
		SELECT 'view', view, state, worker_pid, events_in, lag_events, lag_bytes, build_done, build_total, error FROM weir.views;
		SELECT 'process', pid, backend_type, application_name, state, wait_event_type, wait_event, left(query, 60)
		FROM pg_stat_activity WHERE backend_type LIKE 'pg_weir%' OR wait_event_type = 'Lock';
		},
		sub { note(sprintf('after %.0f s: %s', $seconds, $_[0])) });
}

sub check_all
{
	my ($what, $last_time) = @_;
	my $bad = '';

	# writers come to the end of their scripts
	put_file('hold', '');
	for my $w (1 .. WRITERS)
	{
		my $until = time + 90;

		usleep(20_000) until -e "$dir/idle.$w" || time > $until;
		$bad .= "writer $w hangs; " unless -e "$dir/idle.$w";
	}
	query_patiently('SELECT 1');
	for my $gid (split / /,
		query_patiently("SELECT string_agg(gid, ' ') FROM pg_prepared_xacts"))
	{
		query_patiently("SELECT 1 FROM pg_prepared_xacts WHERE gid = '$gid';"
			  . " COMMIT PREPARED '$gid';");
	}
	resume_failed();

	# the launcher gives workers that keep dying some rest
	for (1 .. 600)
	{
		last
		  if query_patiently('SELECT count(*) FROM weir.views'
			  . " WHERE worker_pid IS NULL AND state <> 'failed'") eq '0';
		usleep(100_000);
	}

	# views that are built from all of the log, some million events
	my $before = time;
	my $building = "SELECT string_agg(view::text, ' ') FROM weir.views"
	  . " WHERE state = 'building' OR build_done < build_total";
	my $built = query_patiently($building);
	my $waits = $built;
	while ($waits ne '' && time - $before < BUILD)
	{
		usleep(100_000);
		$waits = query_patiently($building);
	}
	note(sprintf('%.1f s to build: %s', time - $before, $built)) if $built ne '';
	$bad .= "not built: $waits; " if $waits ne '';

	$before = time;
	my $consumed = 'f';
	while ($consumed ne 't' && time - $before < 60)
	{
		$consumed = query_patiently("SELECT weir.wait_for(NULL, '3 s')");
		who_is_late(time - $before) if $consumed ne 't';
	}
	my $took = time - $before;
	$sum{slowest} = $took if $took > $sum{slowest};
	$bad .= sprintf('consumed only after %.1f s; ', $took)
	  if $consumed ne 't' || $took > DRAIN * crowd();
	query_patiently('SELECT weir.checkpoint()');
	query_patiently("SELECT weir.wait_for(NULL, '60 s')");
	$bad .= crew();
	$bad .= retained();

	# what clients were told
	my (%told, $told_twice);
	if (-e "$dir/answers")
	{
		for my $answer (split /\n/, slurp_file("$dir/answers"))
		{
			my ($how, $tx) = split / /, $answer;

			$told{$how}{$tx} = 1;
		}
	}
	put_file('acked.csv', join('', map { "$_\n" } keys %{ $told{ack} // {} }));
	put_file('undone.csv', join('', map { "$_\n" } keys %{ $told{undone} // {} }));

	my @checks = fault_checks();
	if ($extra ne '' && query_patiently("SELECT to_regclass('extra')") ne '')
	{
		my $shown = $views->{$extra}{shown} // 'TABLE extra';

		$shown =~ s/\b$extra\b/extra/;
		push @checks, [ "a late view like $extra, rows lost or false",
			"SELECT count(*) FROM (($views->{$extra}{model}) EXCEPT ALL ($shown)) x" ],
		  [ "a late view like $extra, rows doubled or false",
			"SELECT count(*) FROM (($shown) EXCEPT ALL ($views->{$extra}{model})) x" ];
	}
	if (query_patiently("SELECT to_regclass('churn')") ne '')
	{
		push @checks, [ 'a view of cancelled statements, rows lost or false',
			"SELECT count(*) FROM (($views->{$churn}{model}) EXCEPT ALL TABLE churn) x" ],
		  [ 'a view of cancelled statements, rows doubled or false',
			"SELECT count(*) FROM (TABLE churn EXCEPT ALL ($views->{$churn}{model})) x" ];
	}
	push @checks, fault_amchecks() if $last_time;
	# the small disk is not for what the checks need
	my $sql = "SET statement_timeout = '300s';\n"
	  . "SET temp_tablespaces = 'pg_default';\n" . fault_model()
	  . "CREATE TEMP TABLE acked (tx bigint);\n"
	  . "CREATE TEMP TABLE undone (tx bigint);\n"
	  . "\\copy acked FROM '$dir/acked.csv'\n"
	  . "\\copy undone FROM '$dir/undone.csv'\n";
	push @checks, [ 'acknowledged transactions lost',
		'SELECT count(*) FROM acked WHERE tx NOT IN (SELECT tx FROM done)' ],
	  [ 'transactions rolled back and there',
		'SELECT count(*) FROM undone WHERE tx IN (SELECT tx FROM done'
		  . ' UNION SELECT tx FROM ev UNION SELECT tx FROM ord'
		  . ' UNION SELECT tx FROM brief)' ],
	  [ 'transactions of which only the events are there',
		'SELECT count(*) FROM (SELECT tx FROM ev UNION SELECT tx FROM ord'
		  . ' UNION SELECT tx FROM brief EXCEPT SELECT tx FROM done) x' ];
	$sql .= "SELECT $_, ($checks[$_][1]);\n" for 0 .. $#checks;
	my $answers = 0;
	my $last = time;
	my $done = run_script(
		'check', $sql,
		sub {
			my ($i, $n) = split /\|/, $_[0];
			my $name = $checks[$i][0];

			$answers++;
			note(sprintf('%.1f s for: %s', time - $last, $name))
			  if time - $last > 5;
			$last = time;
			# a process may end between two looks
			for (1 .. 50)
			{
				last if $n eq '0' || $name !~ /of nobody/;
				usleep(100_000);
				$n = query_patiently($checks[$i][1]);
			}
			return if $n eq '0';
			$bad .= "$name: $n; ";
			$sum{lost}    += $n if $name =~ /lost/;
			$sum{doubled} += $n if $name =~ /doubled|twice/;
			$sum{wrong}++;
		});
	$bad .= 'the checks did not run: ' . slurp_file("$dir/check.err")
	  if !$done || $answers != @checks;
	$sum{checks}++;
	$sum{events} = query_patiently(
		'SELECT (SELECT count(*) FROM ev) + (SELECT count(*) FROM ord)'
		  . ' + (SELECT count(*) FROM brief_twin)');
	$sum{transactions} = query_patiently('SELECT count(*) FROM done');
	$sum{late} = query_patiently('SELECT count(*) FROM late_events');
	$sum{prepared} = keys %{ $told{prepared} // {} };

	# views keep what the stream lets go of, and nothing hinders it
	my $truncated = run_script('check',
		"SELECT weir.checkpoint();\nTRUNCATE brief;\n");
	$bad .= 'TRUNCATE failed: ' . slurp_file("$dir/check.err") if !$truncated;
	is($bad, '', sprintf('%s: all invariants hold, consumed in %.1f s', $what, $took))
	  or diag("seed $seed: $bad");
	# nobody is to write again, after the last check
	put_file('stop', '') if $last_time;
	unlink("$dir/hold");
	return $bad eq '';
}

#-----------------------------------------------------------------------------
# The run.

my @children = ((map { child(\&writer, $_) } 1 .. WRITERS),
	(map { child(\&reader, $_) } 1 .. READERS));
my $went_well = 1;

# Whose doing it is what the log says from now on.
my $kind = '';

sub settle
{
	my ($ended, $bitten) = account($kind);

	$injected{$kind} += $ended if $cancelling{$kind};
	if ($bite{$kind})
	{
		$injected{$kind}++ if $bitten;
		$bites{$kind} += $bitten;
	}
	$kind = '';
}

usleep(500_000);
for (my $i = 0; $i < @schedule; $i++)
{
	my $f = $schedule[$i];

	usleep($f->{wait} * 1e6);
	settle();
	note(sprintf('%.1f s: %d %s', time - $started, $i + 1, $f->{kind}));
	$kind = $f->{kind};
	my $came = $fault{$kind}->($f);
	$injected{$kind} += $came ? 1 : 0 if !$cancelling{$kind} && !$bite{$kind};
	if (($i + 1) % CHECK_EVERY == 0 && $i < $#schedule)
	{
		usleep(100_000);
		settle();
		last unless $went_well = check_all('after ' . ($i + 1) . ' faults');
	}
	if ($i == $#schedule)
	{
		usleep(100_000);
		settle();
	}
	push @schedule, shift @more
	  if $i == $#schedule && kills() < $min_kills && @more;
}
$went_well = check_all('at the end') if $went_well;
if ($went_well)
{
	# the same from the disk
	stop_node('immediate');
	start_node();
	$went_well = check_all('after one more restart', 1);
}
put_file('stop', '');
waitpid($_, 0) foreach @children;

settle();
my $kills = kills();
cmp_ok($kills, '>=', $min_kills, 'enough have died') if $went_well;
my $reads = 0;
for my $r (1 .. READERS)
{
	$reads += () = slurp_file("$dir/reads.$r") =~ /\n/g if -e "$dir/reads.$r";
}

ok(!-e "$dir/died", 'no writer or reader died') or diag(slurp_file("$dir/died"));
ok(!-e "$dir/wrong", "each of $reads reads was consistent")
  or diag(join("\n", (split /\n/, slurp_file("$dir/wrong"))[ 0 .. 20 ]));

# Nothing outlives its view.
if ($went_well)
{
	is( query_patiently('SET client_min_messages = warning;'
			  . ' DROP TABLE IF EXISTS ev, ord, brief CASCADE;'
			  . fault_leftovers()),
		'0', 'nothing is left of dropped streams and views');
}

# What clients met: broken connections, cancels, locks, the full disk.
my %odd;
for my $file (glob("$dir/{writer,reader,ddl}*.err"))
{
	for my $l (split /\n/, slurp_file($file))
	{
		next unless $l =~ /(?:ERROR|FATAL|PANIC):\s+(\w{5}):\s(.*)/;
		my ($state, $text) = ($1, $2);

		next
		  if $state =~ /^(57P0[1-5]|57014|08...|55P03|40P01|53100|53200|53300|42704)$/
		  || $text =~ /^prepared transaction .* is busy/;
		next if $text =~ /File too large|No space left/;
		next if $file =~ /ddl/ && $state =~ /^(42P01|42P07|55006)$/;
		next if $text =~ /failed to map segment|annot allocate memory/;
		$odd{"$state $text"}++;
	}
}
is_deeply([ sort keys %odd ], [], 'no client met an error it should not');
# a full disk passes, a file that may not grow does not
my @failures = grep { !/File too large|debug point/ } sort keys %failed_views;
is_deeply(\@failures, [], 'no view failed but for a limit of the size of files');

# signals 9 and 3 are ours, 6 follows a panic or a failed assertion, which say so;
# a startup process killed leaves a hint about backups
my $log = slurp_file($node->logfile);
is_deeply([ cores() ], [], 'no core file');
is($slow_stops, 0, 'no fast stop took more than 20 s');

# Who was killed by nobody of us?  A debug point says that it kills; children
# that do not heed SIGQUIT the postmaster itself ends.
my $points = () = $log =~ /^debug point "[^"]*" kills$/mg;
my @strange = grep { !$shot{$_} } @shot_dead;
cmp_ok(scalar @strange, '<=', $points, 'each signal 9 was sent by a fault')
  or diag("pids @strange")
  if $log !~ /issuing SIGKILL to recalcitrant children/;
my @bad = grep {
	/TRAP:|PANIC:|terminated by signal (?!9\b|3\b|6\b)|not closed|leak|corrupt|checksum/
	  && !/some data is corrupted and you will have to use the last backup/
	  && !/PANIC:.*No space left on device/
	  # how recovery after a crash finds the end of WAL
	  && !/ startup +LOG:  incorrect resource manager data checksum in record/
} split /\n/, $log;
is_deeply([ @bad[ 0 .. ($#bad < 10 ? $#bad : 10) ] ],
	[], 'nothing in the log that must not be');

my $figures = "seed=$seed faults=$faults kills=$kills cancels=$cancels "
  . "stops=@{[ $injected{fast_stop} + $injected{immediate_stop} ]} "
  . "stopped=$stopped slow_stops=$slow_stops "
  . "lost=$sum{lost} doubled=$sum{doubled} wrong=$sum{wrong} reads=$reads "
  . "torn=" . (-e "$dir/wrong" ? scalar(() = slurp_file("$dir/wrong") =~ /\n/g) : 0)
  . " transactions=" . ($sum{transactions} // 0)
  . " prepared=" . ($sum{prepared} // 0)
  . " vanished=" . (-e "$dir/vanished" ? -s "$dir/vanished" : 0)
  . " disk=" . (($ENV{WEIR_FSYNC} // '') eq 'on' ? $kills : 0)
  . " events=" . ($sum{events} // 0) . " late=" . ($sum{late} // 0)
  . sprintf(' drain=%.1f seconds=%.0f', $sum{slowest}, time - $started)
  . join('', map { " fault:$_=$injected{$_}" } sort keys %injected)
  . join('', map { " bite:$_=$bites{$_}" } sort keys %bites)
  . join('', map { " notrun:$_=1" } sort keys %not_run);
diag($figures);
if ($ENV{WEIR_FAULT_RESULT})
{
	open(my $f, '>>', $ENV{WEIR_FAULT_RESULT}) or die;
	print $f "$figures\n";
	close($f);
}
$node->stop('immediate');
done_testing();
