# Statements on streams, views, roles and schemas at random, by several sessions
# at once, with events in flight: each is done or refused by a known error.  Each
# stream has a heap twin, in which the same transactions do the same: after every
# 500 statements, and after a crash then, stream and twin have the same rows, and
# every view that is there equals its query over either.
# WEIR_OPS: how many (500); WEIR_SEED replays the statements, not their
# interleaving.
use strict;
use warnings;

use lib 'test/tap', 'test/fault';

use IPC::Run;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use WeirFault;
use WeirTest;

use constant SESSIONS => 3;
use constant ROUND    => 500;

my $ops  = $ENV{WEIR_OPS}  // ROUND;
my $seed = $ENV{WEIR_SEED} // int(rand(1_000_000_000));
diag("ddl: WEIR_SEED=$seed");
srand($seed);
my $node = weir_node('ddl', conf => "log_min_messages = error\nlog_error_verbosity = verbose\n");

sub sql { return $node->safe_psql('postgres', $_[0]) }

# s0 .. s2 have a, b, ts always, c sometimes, in one type or another; t0 .. t2 are
# their twins.
my @streams = map { "s$_" } 0 .. 2;
my $columns = "a int, b bigint, ts timestamptz NOT NULL DEFAULT '2026-01-01Z'";
my $with    = "USING stream WITH (event_time = ts, watermark_delay = '1 hour')";
sql(join '', "CREATE ROLE one; CREATE ROLE two; CREATE SCHEMA x;"
	  . 'GRANT ALL ON SCHEMA x, public TO one, two; ALTER DATABASE postgres SET search_path = public, x;',
	map { "CREATE TABLE $_ ($columns) $with; GRANT ALL ON $_ TO one, two;"
		  . 'CREATE TABLE ' . twin_of($_) . " ($columns);" } @streams);

sub twin_of { return $_[0] =~ s/\bs(?=[0-2]\b)/t/gr }

# Done to the stream, then to its twin, or to neither.
sub both { return "BEGIN; $_[0]; " . twin_of($_[0]) . '; COMMIT' }

sub any { return $_[ int(rand(@_)) ] }

# Names are looked up anywhere: a schema may have been left for another.
my %shape = (
	k => 'SELECT a %% 5 AS k, count(*) AS n, sum(b) AS s FROM %s GROUP BY 1',
	w => q{SELECT window_start, count(*) AS n, min(b) AS lo FROM %s, tumble(ts, '1 minute') GROUP BY window_start},
	t => 'SELECT count(*) AS n, max(b) AS hi FROM %s');

sub statement
{
	my $s = any(@streams);
	my $v = 'v' . int(rand(6));
	my $r = any('one', 'two');

	return any(
		(sub {
			my $shape = $shape{ any(sort keys %shape) };
			$shape =~ s/%%/%/;
			"CREATE MATERIALIZED VIEW $v USING continuous AS " . $shape =~ s/%s/$s/r;
		}) x 5,
		(sub { my $i = int(rand(1e6)); both("INSERT INTO $s (a, b) SELECT i, i * 10 FROM generate_series($i, $i + 49) i") }) x 6,
		(sub { my $i = int(rand(1e6)); both("INSERT INTO $s (a, b, c) SELECT i, i * 3, i * 7 FROM generate_series($i, $i + 49) i") }) x 2,
		(sub {
			my ($one, $two) = map { "$_; " . twin_of($_) . '; ' } "INSERT INTO $s (a, b) VALUES (1, 1)",
			  "ALTER TABLE $s ADD COLUMN IF NOT EXISTS c int DEFAULT 7; INSERT INTO $s (a, b) VALUES (2, 2)";
			"BEGIN; ${one}SAVEPOINT p; $two" . any('ROLLBACK TO p; COMMIT', 'COMMIT', 'ROLLBACK');
		}) x 2,
		sub { "DROP MATERIALIZED VIEW $v" },
		sub { "BEGIN; DROP MATERIALIZED VIEW $v; INSERT INTO $s (a, b) VALUES (3, 3); ROLLBACK" },
		sub { "REFRESH MATERIALIZED VIEW $v" },
		sub { "ALTER MATERIALIZED VIEW $v RENAME TO v" . int(rand(6)) },
		sub { "ALTER MATERIALIZED VIEW $v OWNER TO " . any($r, 'CURRENT_USER') },
		sub { "ALTER MATERIALIZED VIEW $v SET SCHEMA " . any('x', 'public') },
		sub { "ALTER MATERIALIZED VIEW $v SET (on_error = " . any('skip', 'stop') . ')' },
		sub { "CREATE INDEX ON $v (n)" },
		sub { "SELECT weir.pause('$v'); SELECT weir.resume('$v')" },
		sub { "SELECT pg_terminate_backend(pid) FROM weir.workers" },
		sub { both("ALTER TABLE $s ADD COLUMN IF NOT EXISTS c " . any('int', "text DEFAULT 'x'", 'numeric DEFAULT 1.5')) },
		sub { both("ALTER TABLE $s DROP COLUMN IF EXISTS c") },
		sub { both("ALTER TABLE $s ALTER COLUMN " . any('a', 'b', 'c') . ' TYPE ' . any('bigint', 'text', 'numeric')) },
		sub { both("ALTER TABLE $s ALTER COLUMN c SET DEFAULT " . any('NULL', '3')) },
		sub { both("ALTER TABLE $s RENAME COLUMN c TO d") . '; ' . both("ALTER TABLE $s RENAME COLUMN d TO c") },
		sub { "BEGIN; ALTER TABLE $s RENAME TO tmp; ALTER TABLE tmp RENAME TO $s; COMMIT" },
		sub { "ALTER TABLE $s SET SCHEMA x; ALTER TABLE x.$s SET SCHEMA public" },
		sub { "ALTER TABLE $s OWNER TO " . any($r, 'CURRENT_USER') },
		sub { any('GRANT', 'REVOKE') . " SELECT, TRIGGER ON $s " },
		sub { "BEGIN; ALTER SCHEMA x RENAME TO y; ALTER SCHEMA y RENAME TO x; COMMIT" },
		sub { "BEGIN; ALTER ROLE $r RENAME TO three; ALTER ROLE three RENAME TO $r; COMMIT" },
		sub { "VACUUM $s" },
		sub { "SELECT weir.checkpoint()" },
		sub { "SELECT count(*) FROM $v" },
		sub { "ALTER TABLE $s SET (watermark_delay = '" . any('1 hour', '2 hours') . "')" })->()
	  =~ s/((GRANT|REVOKE).*) $/"$1 " . ($2 eq 'GRANT' ? 'TO' : 'FROM') . " $r"/er;
}

my $dir = PostgreSQL::Test::Utils::tempdir();

# So many statements by all sessions, to the end.
sub run_statements
{
	my ($n) = @_;
	my @runs;

	for my $session (1 .. SESSIONS)
	{
		my $file = "$dir/$session";

		open(my $fh, '>', $file) or die $!;
		print $fh "SET lock_timeout = '20s'; SET statement_timeout = '60s';\n";
		print $fh statement() . ";\nROLLBACK;\n" for 1 .. ($n + SESSIONS - 1) / SESSIONS;
		close $fh;
		push @runs, IPC::Run::start(
			[ 'psql', '-Xq', '-d', $node->connstr('postgres'), '-f', $file ],
			'>', "$file.out", '2>', "$file.err");
	}
	$_->finish for @runs;
	ok(!(grep { /server closed|connection.*lost/ } map { slurp_file("$dir/$_.err") } 1 .. SESSIONS), 'nobody was thrown out');
}

# What may be refused: names that are not there (or there already), locks,
# rights, what streams and views do not do, what waits for events, workers that
# were asked to end.
my %known = map { $_ => 1 } qw(42P01 42P07 42703 42701 42704 42710 3F000 42P06 40P01 55P03 42501
  0A000 2BP01 55000 55006 42804 42809 42883 42P16 57014 25P02 57P01);

# What the server itself says of objects that two change at a time, as
# "function, file.c: code: message".
my @allowed = (
	qr/^simple_heap_(update|delete), heapam\.c: XX000: tuple concurrently (updated|deleted)$/,
	qr/^_bt_check_unique, nbtinsert\.c: 23505: .* "pg_(class|type|authid|namespace)_\w+"$/);

# Of all processes, since the last time.
my %codes;
my $read = 0;
sub known_errors
{
	my $log = slurp_file($node->logfile, $read);
	my (@odd, %last); # by pid: one that is not known, before its location is

	$read = -s $node->logfile;
	foreach my $line (split /\n/, $log)
	{
		if ($line =~ /\[(\d+)\].* (?:ERROR|FATAL|PANIC):  (\w{5}): (.*)/)
		{
			my ($pid, $code, $text) = ($1, $2, $3);
			$codes{$code}++;
			$last{$pid} = "$code: $text" if !$known{$code};
		}
		elsif ($line =~ /\[(\d+)\].* LOCATION:  (\w+, \w+\.c):\d+/ && defined $last{$1})
		{
			my $text = "$2: " . delete $last{$1};
			push @odd, $text if !grep { $text =~ $_ } @allowed;
		}
	}
	is_deeply([ @odd, values %last ], [], 'nothing but known errors');
}

sub exact
{
	my ($when) = @_;
	my @views = split /\n/, sql("SELECT view FROM weir.views ORDER BY view::text");

	weir_wait($node, "$when: views have caught up");
	foreach my $s (@streams)
	{
		weir_same($node, $s, 'TABLE ' . twin_of($s), "$when: $s has the rows of its twin");
	}
	foreach my $view (@views)
	{
		my $query = sql("SELECT pg_get_viewdef('$view'::regclass)") =~ s/;\s*$//r;

		weir_same($node, $view, $query, "$when: $view equals its query");
		weir_same($node, $view, twin_of($query) =~ s/\bx\.(?=t\d)//gr, "$when: $view equals its query over the twin");
	}
	return scalar @views;
}

my $nviews = 0;
for (my $done = 0; $done < $ops; $done += ROUND)
{
	run_statements($ops - $done < ROUND ? $ops - $done : ROUND);

	# rights come back, then everything runs
	sql(join '', map { "GRANT ALL ON $_ TO one, two;" } @streams);
	sql('GRANT ALL ON SCHEMA x, public TO one, two');
	sql("SELECT weir.resume(view) FROM weir.views WHERE state = 'paused'");
	ok(weir_go_on($node), "$done: views go on");
	is(sql("SELECT view, state, error FROM weir.views WHERE state <> 'running' OR error IS NOT NULL"), '', "$done: all run")
	  or diag(sql('SELECT to_jsonb(v) FROM weir.views v; SELECT to_jsonb(w) FROM weir.workers w;'
		  . 'SELECT to_jsonb(w) FROM weir.view_wish w; SELECT to_jsonb(p) FROM weir.view_position p;'
		  . q{SELECT oid, relname, relowner::regrole, relacl FROM pg_class WHERE relname ~ '^[sv]\d$'}));
	$nviews += exact($done);
	known_errors();
	$node->stop('immediate');
	$node->start;
	exact("$done: after a crash");
	$read = -s $node->logfile;
}
note(join ', ', map { "$codes{$_} times $_" } sort keys %codes);
cmp_ok($nviews, '>', 0, 'there were views');
ok($codes{'42P01'}, 'the log told of errors');
sql("DROP TABLE " . join(', ', @streams) . ' CASCADE');
is(sql(fault_leftovers()), '0', 'nothing is left of what was dropped');
sql('DROP OWNED BY one, two; DROP ROLE one, two');
weir_log_is_clean($node);
$node->stop;
done_testing();
