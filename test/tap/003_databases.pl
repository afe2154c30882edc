# Several databases with workers running in them: DROP, RENAME, TEMPLATE and
# DROP EXTENSION work at once and leave no worker behind.

use strict;
use warnings;

use lib 'test/tap';
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use WeirTest;

my $node = weir_node('databases');

sub workers
{
	my ($db) = @_;
	return qq{SELECT count(*) FROM pg_stat_activity
		WHERE datname = '$db' AND backend_type ~ 'pg_weir'};
}

sub make
{
	my ($db) = @_;
	$node->safe_psql(
		$db, q{
		CREATE EXTENSION IF NOT EXISTS pg_weir;
		CREATE TABLE s (k int, x int) USING stream;
		CREATE MATERIALIZED VIEW v USING continuous AS
			SELECT k, count(*) AS n, sum(x) AS x FROM s GROUP BY k});
}

sub feed
{
	my ($db, $expected, $what) = @_;
	$node->safe_psql($db, 'INSERT INTO s SELECT i % 3, 1 FROM generate_series(1, 300) i');
	is($node->safe_psql($db, q{SELECT weir.wait_for('v', '120 s')}), 't', "$what: caught up");
	is($node->safe_psql($db, 'SELECT sum(n) FROM v'), $expected, "$what: rows");
}

# databases do not see each other, though numbers and the ring are shared
for my $db ('one', 'two', 'three')
{
	$node->safe_psql('postgres', "CREATE DATABASE $db");
	make($db);
}
feed($_, 300, $_) for ('one', 'two', 'three');
feed($_, 600, "$_ again") for ('three', 'one', 'two');

# a copy has the extension, the rows, and soon workers of its own
$node->safe_psql('postgres', 'CREATE DATABASE copy TEMPLATE one');
is($node->safe_psql('copy', 'SELECT count(*) FROM s'), '600', 'copy: rows of the stream');
feed('copy', 900, 'copy');
feed('one', 900, 'one after being copied');
$node->safe_psql('postgres', 'CREATE DATABASE copy2 TEMPLATE one STRATEGY file_copy');
feed('copy2', 1200, 'copy2');

# RENAME, SET TABLESPACE
$node->safe_psql('postgres', 'ALTER DATABASE two RENAME TO deux');
feed('deux', 900, 'renamed');
my $space = PostgreSQL::Test::Utils::tempdir;
$node->safe_psql('postgres', "CREATE TABLESPACE elsewhere LOCATION '$space'");
$node->safe_psql('postgres', 'ALTER DATABASE deux SET TABLESPACE elsewhere');
feed('deux', 1200, 'moved');

# A stream and its view go to another tablespace while others write.
$node->safe_psql('postgres', "CREATE TABLESPACE another LOCATION '" . PostgreSQL::Test::Utils::tempdir . q{'});
my $script = PostgreSQL::Test::Utils::tempdir . '/insert.sql';
append_to_file($script, "BEGIN;\nINSERT INTO s SELECT i % 7, 1 FROM generate_series(1, 20) i;\nSAVEPOINT a;\n"
	  . "INSERT INTO s SELECT i, 1 FROM generate_series(1, 500) i;\nROLLBACK TO a;\nINSERT INTO s VALUES (8, 1);\nCOMMIT;\n");
my $pgbench = IPC::Run::start([ 'pgbench', '-n', '-c', 3, '-t', 200, '-f', $script, $node->connstr('deux') ],
	'<', \undef, '>', \my $said, '2>&1');
for my $to ('another', 'elsewhere', 'another')
{
	$node->safe_psql('deux', "ALTER TABLE s SET TABLESPACE $to");
	$node->safe_psql('deux', "ALTER MATERIALIZED VIEW v SET TABLESPACE $to");
	$node->safe_psql('deux', 'SELECT weir.checkpoint()');
}
ok($pgbench->finish, 'all could write') or diag($said);
my $expected = 1200 + 3 * 200 * 21;
feed('deux', $expected + 300, 'stream and view moved');
weir_same($node, 'v', 'SELECT k, count(*), sum(x) FROM s GROUP BY k', 'and exact', 'deux');

# in a transaction: not after rows of its own, but before; or not at all
my $move = 'ALTER TABLE s SET TABLESPACE elsewhere;';
my $own = "INSERT INTO s VALUES (1, 1);";
for my $wrote ($own, "$own SELECT count(*) FROM s;", "SAVEPOINT a; $own RELEASE a;")
{
	my (undef, undef, $err) = $node->psql('deux', "\\set VERBOSITY verbose\nBEGIN; $wrote $move COMMIT");
	like($err, qr/ERROR:  55006: cannot move stream "s" in a transaction that wrote to it\nHINT:  Commit first\./, "not after: $wrote");
}
$node->safe_psql('deux', "BEGIN; $move $own ROLLBACK");
$node->safe_psql('deux', "BEGIN; SAVEPOINT a; $move $own ROLLBACK TO a; $own COMMIT");
$node->safe_psql('deux', "BEGIN; $move $own SELECT count(*) FROM s; $own COMMIT");
feed('deux', $expected + 603, 'moved in a transaction');
$node->stop('immediate');
$node->start;
feed('deux', $expected + 903, 'moved, after a crash');
weir_same($node, 'v', 'SELECT k, count(*), sum(x) FROM s GROUP BY k', 'and exact', 'deux');
is($node->safe_psql('deux', q{SELECT string_agg(relname || ' ' || coalesce(spcname, 'default'), ', ' ORDER BY relname) FROM pg_class c
	LEFT JOIN pg_tablespace t ON t.oid = reltablespace WHERE relname IN ('s', 'v')}), 's default, v another', 'where they are said to be');

# those who may not do it bar nobody
$node->safe_psql('postgres', 'CREATE ROLE stranger LOGIN');
my $pids = q{SELECT string_agg(pid::text, ' ' ORDER BY pid) FROM weir.workers};
my $running = $node->safe_psql('three', $pids);
my ($rc, $out, $err) = $node->psql('postgres', 'DROP DATABASE three',
	extra_params => [ '-U', 'stranger' ]);
like($err, qr/must be owner of database/, 'a stranger cannot drop it');
($rc, $out, $err) = $node->psql('postgres', 'BEGIN; DROP DATABASE three');
like($err, qr/cannot run inside a transaction block/, 'nor can a transaction block');
feed('three', 900, 'three is there');
is($node->safe_psql('three', $pids), $running, 'and its workers have not been asked to end');

# a database that takes no connections any more: its workers end, and take what
# they have in memory to disk first
$node->safe_psql('postgres', q{ALTER SYSTEM SET weir.checkpoint_interval = '1h'});
$node->reload;
feed('deux', $expected + 1203, 'before it is closed');
$node->safe_psql('postgres', 'ALTER DATABASE deux ALLOW_CONNECTIONS false');
$node->reload; # the launcher looks
ok($node->poll_query_until('postgres', workers('deux'), '0'), 'closed: its workers end');
feed('one', 1200, 'one goes on');
$node->safe_psql('postgres', 'ALTER DATABASE deux ALLOW_CONNECTIONS true');
$node->reload;
feed('deux', $expected + 1503, 'open again');
$node->safe_psql('postgres', q{ALTER SYSTEM RESET weir.checkpoint_interval});
$node->reload;

# DROP DATABASE with its workers busy
$node->safe_psql('three', 'INSERT INTO s SELECT i % 3, 1 FROM generate_series(1, 100000) i');
$node->safe_psql('postgres', 'DROP DATABASE three');
is($node->safe_psql('postgres', q{SELECT count(*) FROM pg_database WHERE datname = 'three'}),
	'0', 'dropped while it works');
$node->safe_psql('postgres', 'DROP DATABASE copy WITH (FORCE)');
is($node->safe_psql('postgres', workers('copy')), '0', 'no worker is left');

# DROP EXTENSION with workers running; then again from the start
$node->safe_psql('one', 'DROP EXTENSION pg_weir CASCADE');
is($node->safe_psql('one', q{SELECT count(*) FROM pg_class WHERE relname IN ('s', 'v')}), '0',
	'DROP EXTENSION takes streams and views');
ok($node->poll_query_until('postgres', workers('one'), '0'), 'its workers end');
make('one');
feed('one', 300, 'one anew');
$node->safe_psql('one', 'BEGIN; DROP EXTENSION pg_weir CASCADE; ROLLBACK');
feed('one', 600, 'one after a rollback');

# a new extension at once: the workers must not take what is in between for the
# end
for my $i (1 .. 30)
{
	$node->safe_psql(
		'one', q{
		BEGIN;
		DROP EXTENSION pg_weir CASCADE;
		CREATE EXTENSION pg_weir;
		CREATE TABLE s (k int, x int) USING stream;
		CREATE MATERIALIZED VIEW v USING continuous AS
			SELECT k, count(*) AS n, sum(x) AS x FROM s GROUP BY k;
		INSERT INTO s SELECT i % 3, 1 FROM generate_series(1, 600) i;
		COMMIT});
	my $done = $node->safe_psql('one', q{SELECT weir.wait_for('v', '120 s')});
	next if $done eq 't';
	is($done, 't', "new extension $i: its view is maintained");
	last;
}
is($node->safe_psql('one', 'SELECT sum(n) FROM v'), '600', 'one with the last of them');

# the same OIDs of a dropped database never come back by the shared tables
feed('deux', $expected + 1803, 'the others went on');
feed('copy2', 1500, 'copy2 went on');

$node->restart;
feed('one', 900, 'one after restart');
feed('deux', $expected + 2103, 'deux after restart');
weir_log_is_clean($node);
$node->stop;
done_testing();
