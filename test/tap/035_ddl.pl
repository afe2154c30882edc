# Statements on streams, views, roles and schemas at random, by several sessions
# at once, with events in flight: each is done or refused by a known error, and in
# the end every view that is there equals its query over what its stream holds.
# WEIR_OPS: how many (300); WEIR_SEED replays the statements, not their
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

my $ops  = $ENV{WEIR_OPS}  // 300;
my $seed = $ENV{WEIR_SEED} // int(rand(1_000_000_000));
diag("ddl: WEIR_SEED=$seed");
srand($seed);
my $node = weir_node('ddl');

# s0 .. s2 have a, b, ts always, c sometimes, in one type or another.
my @streams = map { "s$_" } 0 .. 2;
my $columns = "a int, b bigint, ts timestamptz NOT NULL DEFAULT '2026-01-01Z'";
my $with    = "USING stream WITH (event_time = ts, watermark_delay = '1 hour')";
$node->safe_psql('postgres', join '', "CREATE ROLE one; CREATE ROLE two; CREATE SCHEMA x;"
	  . 'GRANT ALL ON SCHEMA x, public TO one, two;',
	map { "CREATE TABLE $_ ($columns) $with; GRANT ALL ON $_ TO one, two;" } @streams);

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
		(sub { "INSERT INTO $s (a, b) SELECT i, i * 10 FROM generate_series(1, 50) i" }) x 8,
		(sub { "BEGIN; INSERT INTO $s (a, b) VALUES (1, 1); SAVEPOINT p; ALTER TABLE $s ADD COLUMN IF NOT EXISTS c int DEFAULT 7;"
			  . " INSERT INTO $s (a, b) VALUES (2, 2); " . any('ROLLBACK TO p; COMMIT', 'COMMIT', 'ROLLBACK') }) x 2,
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
		sub { "ALTER TABLE $s ADD COLUMN IF NOT EXISTS c " . any('int', "text DEFAULT 'x'", 'numeric DEFAULT 1.5') },
		sub { "ALTER TABLE $s DROP COLUMN IF EXISTS c" },
		sub { "ALTER TABLE $s ALTER COLUMN " . any('a', 'b', 'c') . ' TYPE ' . any('bigint', 'text', 'numeric') },
		sub { "ALTER TABLE $s ALTER COLUMN c SET DEFAULT NULL" },
		sub { "ALTER TABLE $s RENAME COLUMN c TO d; ALTER TABLE $s RENAME COLUMN d TO c" },
		sub { "BEGIN; ALTER TABLE $s RENAME TO tmp; ALTER TABLE tmp RENAME TO $s; COMMIT" },
		sub { "ALTER TABLE $s SET SCHEMA x; ALTER TABLE x.$s SET SCHEMA public" },
		sub { "ALTER TABLE $s OWNER TO " . any($r, 'CURRENT_USER') },
		sub { any('GRANT', 'REVOKE') . " SELECT, TRIGGER ON $s " },
		sub { "ALTER SCHEMA x RENAME TO y; ALTER SCHEMA y RENAME TO x" },
		sub { "ALTER ROLE $r RENAME TO three; ALTER ROLE three RENAME TO $r" },
		sub { "VACUUM $s" },
		sub { "SELECT weir.checkpoint()" },
		sub { "SELECT count(*) FROM $v" },
		sub { "ALTER TABLE $s SET (watermark_delay = '" . any('1 hour', '2 hours') . "')" })->()
	  =~ s/((GRANT|REVOKE).*) $/"$1 " . ($2 eq 'GRANT' ? 'TO' : 'FROM') . " $r"/er;
}

my $dir = PostgreSQL::Test::Utils::tempdir();
my @runs;
for my $n (1 .. SESSIONS)
{
	my $sql = "SET search_path = public, x; SET lock_timeout = '20s'; SET statement_timeout = '60s';\n";

	$sql .= statement() . ";\nROLLBACK;\n" for 1 .. $ops / SESSIONS;
	append_to_file("$dir/sql$n", $sql);
	push @runs, IPC::Run::start(
		[ 'psql', '-Xq', '-v', 'VERBOSITY=verbose', '-d', $node->connstr('postgres'), '-f', "$dir/sql$n" ],
		'>', "$dir/out$n", '2>', "$dir/err$n");
}
$_->finish for @runs;

# What may be refused: names that are not there (or there already), locks,
# rights, what streams and views do not do, what waits for events.
my %known = map { $_ => 1 } qw(42P01 42P07 42703 42701 42704 42710 3F000 42P06 40P01 55P03 42501
  0A000 2BP01 55000 55006 42804 42809 42883 42P16 57014 25P02 XX000);
my %codes;
my @odd;
foreach my $line (map { split /\n/, slurp_file("$dir/err$_") } 1 .. SESSIONS)
{
	next unless $line =~ /(?:ERROR|FATAL|PANIC):  (\w{5}): (.*)/;
	my ($code, $text) = ($1, $2);
	$codes{$code}++;
	# what the server itself says of objects that are changed by two at a time
	next if $code eq 'XX000' && $text =~ /^(tuple concurrently (updated|deleted)|cache lookup failed for|could not open relation)/;
	push @odd, $line if !$known{$code} || $code eq 'XX000';
}
note(join ', ', map { "$_: $codes{$_}" } sort keys %codes);
is_deeply(\@odd, [], 'nothing but known errors');
ok(!(grep { /server closed|connection.*lost/ } map { slurp_file("$dir/err$_") } 1 .. SESSIONS), 'nobody was thrown out');

# Rights come back, then everything runs.
$node->safe_psql('postgres', join '', map { "GRANT ALL ON $_ TO one, two;" } @streams);
$node->safe_psql('postgres', 'GRANT ALL ON SCHEMA x, public TO one, two');
$node->safe_psql('postgres', "SELECT weir.resume(view) FROM weir.views WHERE state IN ('failed', 'paused')");
weir_wait($node, 'views go on');
is($node->safe_psql('postgres', "SELECT view, state, error FROM weir.views WHERE state <> 'running' OR error IS NOT NULL"), '', 'all run');

my @views = split /\n/, $node->safe_psql('postgres', "SELECT view FROM weir.views ORDER BY view::text");
cmp_ok(scalar @views, '>', 0, 'there are some');
foreach my $view (@views)
{
	my $query = $node->safe_psql('postgres', "SELECT pg_get_viewdef('$view'::regclass)");

	weir_same($node, $view, $query =~ s/;\s*$//r);
}
$node->stop('immediate');
$node->start;
weir_wait($node, 'after a crash');
foreach my $view (@views)
{
	my $query = $node->safe_psql('postgres', "SELECT pg_get_viewdef('$view'::regclass)");

	weir_same($node, $view, $query =~ s/;\s*$//r, "$view: after a crash");
}
$node->safe_psql('postgres', "DROP TABLE " . join(', ', @streams) . ' CASCADE');
is($node->safe_psql('postgres', fault_leftovers()), '0', 'nothing is left of what was dropped');
$node->safe_psql('postgres', 'DROP OWNED BY one, two; DROP ROLE one, two');
weir_log_is_clean($node);
$node->stop;
done_testing();
