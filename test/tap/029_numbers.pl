# Many commit at the same time: their numbers run ahead of WAL, and none may be
# in the log before WAL is beyond it, or a start after a crash would begin below.
# The server checks that itself, by an assertion in each commit.

use strict;
use warnings;

use lib 'test/tap';
use IPC::Run;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use WeirTest;

use constant WRITERS => 80;

my $node = weir_node('numbers');

plan skip_all => 'a build without debug points'
  if $node->psql('postgres', 'SHOW weir.debug_points') != 0;
$node->append_conf('postgresql.conf', 'max_connections = ' . (WRITERS + 20));
$node->restart;

# unlogged, so that a commit record is all that a commit writes
$node->safe_psql(
	'postgres', q{
	CREATE UNLOGGED TABLE s (k int) USING stream;
	CREATE MATERIALIZED VIEW v USING continuous AS SELECT count(*) AS n FROM s;});
weir_wait($node);

# all have their numbers, the first is the last to commit
my $gate = $node->background_psql('postgres');
$gate->query_safe(q{SELECT pg_advisory_lock(1465207378, hashtext('stream_pre_commit'))});
my $script = $node->basedir . '/insert.sql';
append_to_file($script, "INSERT INTO s VALUES (1);\n");
local $ENV{PGOPTIONS} = '-c weir.debug_points=stream_pre_commit=wait';
my $writers = IPC::Run::start(
	[ 'pgbench', '-n', '-c', WRITERS, '-t', 1, '-f', $script, $node->connstr('postgres') ],
	'>', \my $out, '2>', \my $err);
delete local $ENV{PGOPTIONS};
ok($node->poll_query_until('postgres', q{
	SELECT count(*) = } . WRITERS . q{ FROM pg_locks
	WHERE locktype = 'advisory' AND classid = 1465207378 AND NOT granted}), 'all have numbers');
is($node->psql('postgres', 'INSERT INTO s VALUES (1)'), 0, 'who comes last commits first');
$gate->query_safe(q{SELECT pg_advisory_unlock_all()});
$gate->quit;
ok($writers->finish, 'the others commit');
weir_wait($node);
is($node->safe_psql('postgres', 'SELECT n FROM v'), WRITERS + 1, 'and all count');

# some take their time between commit and publication, others are published and
# consumed meanwhile
local $ENV{PGOPTIONS} = '-c weir.debug_points=order_publish=sleep';
$writers = IPC::Run::start(
	[ 'pgbench', '-n', '-c', 4, '-t', 20, '-f', $script, $node->connstr('postgres') ],
	'>', \$out, '2>', \$err);
delete local $ENV{PGOPTIONS};
# a new worker looks into the log, where the others are and are yet to be published
$node->safe_psql('postgres', 'SELECT pg_terminate_backend(pid, 60000) FROM weir.workers');
IPC::Run::run([ 'pgbench', '-n', '-t', 200, '-f', $script, $node->connstr('postgres') ], '>', \my $out2, '2>', \my $err2);
ok($writers->finish, 'they are published');
weir_wait($node);
is($node->safe_psql('postgres', 'SELECT n = (SELECT count(*) FROM s) FROM v'), 't', 'none is passed by, nor counted twice');

weir_log_is_clean($node);
$node->stop;
done_testing();
