# The ring and the places in it are hints: a worker that falls behind by more
# than the ring holds, or meets a file that was written anew, reads the log, and
# counts each transaction once.  A view is checkpointed after so much of the log,
# too.  The sizes are those of a build with debug points.

use strict;
use warnings;

use lib 'test/tap';
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use WeirTest;

# With these the worker stands before it opens the stream, while somebody holds
# the lock, and the log tells when it reads the log rather than the ring.
my $node = weir_node('hints', conf => <<'CONF');
weir.checkpoint_interval = '1h'
weir.debug_points = 'batch-open=wait, reader-scan=sleep'
autovacuum = off
allow_in_place_tablespaces = on
log_min_messages = warning
CONF
my $scans = qr/debug point "reader-scan" sleeps/;

$node->safe_psql(
	'postgres', q{
	CREATE TABLE s (k int, x text) USING stream;
	CREATE MATERIALIZED VIEW total USING continuous AS
		SELECT count(*) AS n, sum(k) AS sum, sum(length(x)) AS len FROM s;
	INSERT INTO s SELECT i, 'x' FROM generate_series(1, 1000) i;});
weir_wait($node);

my $holder = $node->background_psql('postgres');
my $from;

# The worker stands at the point, having had something to do.
sub hold
{
	$holder->query_safe(q{SELECT pg_advisory_lock(1465207378, hashtext('batch-open'))});
	$node->safe_psql('postgres', q{INSERT INTO s VALUES (0, 'wakes it')});
	$node->poll_query_until(
		'postgres', q{SELECT count(*) = 1 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted
			AND classid = 1465207378 AND objid::bigint = hashtext('batch-open') & 4294967295})
	  or die 'the worker does not stand';
	$from = -s $node->logfile;
}

sub let_go
{
	my ($what) = @_;

	$holder->query_safe('SELECT pg_advisory_unlock_all()');
	weir_wait($node, "$what: caught up");
	weir_same($node, 'total', 'SELECT count(*), sum(k), sum(length(x)) FROM s', "$what: exact");
}

sub transactions
{
	my ($n) = @_;

	$node->safe_psql('postgres', join(';', map { "INSERT INTO s VALUES ($_, 'y')" } 1 .. $n));
}

# fewer than the ring holds: it says all
hold();
transactions(1);
$node->safe_psql('postgres', join(';', ('BEGIN', q{INSERT INTO s VALUES (1, 'never')}, 'ROLLBACK') x 3));
$node->safe_psql('postgres', q{INSERT INTO s VALUES (2, 'z')}) for 1 .. 10;
let_go('few');
unlike(slurp_file($node->logfile, $from), $scans, 'few: the ring was enough');

# more, in two streams
hold();
$node->safe_psql('postgres', 'CREATE TABLE other (a int) USING stream');
$node->safe_psql(
	'postgres', q{
	DO $$ BEGIN
		FOR i IN 1..200 LOOP
			INSERT INTO s VALUES (i, 'many');
			COMMIT;
			INSERT INTO other VALUES (i);
			COMMIT;
			INSERT INTO s VALUES (i, 'none');
			ROLLBACK;
		END LOOP;
	END $$});
let_go('overrun');
like(slurp_file($node->logfile, $from), $scans, 'overrun: the log was read');

# once more than the ring holds, and one more or less
for my $n (62 .. 66)
{
	hold();
	$node->safe_psql('postgres',
		"DO \$\$ BEGIN FOR i IN 1..$n LOOP INSERT INTO s VALUES (i, 'edge'); COMMIT; END LOOP; END \$\$");
	let_go("$n transactions");
}

# the file is written anew between commit and reading: places are of another
# file; with what is in front of them gone, and events of several pages
$node->safe_psql('postgres', q{CREATE TABLESPACE elsewhere LOCATION ''});
for my $rewrite ('VACUUM FULL s', 'ALTER TABLE s SET TABLESPACE elsewhere', 'VACUUM FULL s; VACUUM FULL s')
{
	hold();
	$node->safe_psql(
		'postgres', q{
		BEGIN;
		INSERT INTO s SELECT i, repeat('gone', 100) FROM generate_series(1, 20000) i;
		ROLLBACK;
		BEGIN;
		INSERT INTO s VALUES (1, 'a');
		SAVEPOINT a;
		INSERT INTO s SELECT i, repeat('never', 10) FROM generate_series(1, 1000) i;
		ROLLBACK TO a;
		INSERT INTO s SELECT 7, string_agg(md5(i::text), '') FROM generate_series(1, 5000) i;
		COMMIT;
		BEGIN;
		INSERT INTO s VALUES (3, 'prepared');
		PREPARE TRANSACTION 'p';
		COMMIT PREPARED 'p';});
	$node->safe_psql('postgres', $rewrite);
	$node->safe_psql('postgres', q{INSERT INTO s VALUES (5, 'into the new file')});
	let_go($rewrite);
	like(slurp_file($node->logfile, $from), $scans, "$rewrite: the log was read");
	unlike(slurp_file($node->logfile, $from), qr/damaged/, "$rewrite: and nothing looked for in vain");
}
$holder->quit;

# errors on the way to the log, which a new worker reads first
$node->append_conf('postgresql.conf',
	q{weir.debug_points = 'batch-open=cancel@1, batch-open=error@1, reader-scan=cancel@1, reader-scan=error@1'});
$node->reload;
$node->poll_query_until('postgres', q{SELECT current_setting('weir.debug_points') ~ 'cancel'})
  or die 'the setting has not changed';
$from = -s $node->logfile;
$node->safe_psql('postgres', 'SELECT pg_terminate_backend(pid, 60000) FROM weir.workers');
transactions(3);
$node->poll_query_until('postgres', q{SELECT count(*) > 0 FROM weir.workers}) or die 'no worker';
weir_wait($node, 'errors: caught up');
weir_same($node, 'total', 'SELECT count(*), sum(k), sum(length(x)) FROM s', 'errors: exact');
for my $point ('batch-open', 'reader-scan')
{
	my $log = slurp_file($node->logfile, $from);

	like($log, qr/debug point "$point" cancels/, "errors: $point, one that passes");
	like($log, qr/debug point "$point" raised an error/, "errors: $point, another");
}

# by volume of the log
my $at = q{SELECT checkpoint_at FROM weir.views WHERE view = 'total'::regclass};
$node->safe_psql('postgres', 'SELECT weir.checkpoint()');
my $before = $node->safe_psql('postgres', $at);
isnt($before, '', 'there is a checkpoint');
$node->safe_psql('postgres',
	q{INSERT INTO s SELECT i, string_agg(md5(i::text || j), '') FROM generate_series(1, 100) i, generate_series(1, 100) j GROUP BY i});
weir_wait($node);
is($node->safe_psql('postgres', $at), $before, 'not after a little of the log');
for (1 .. 6)
{
	$node->safe_psql('postgres',
		q{INSERT INTO s SELECT i, string_agg(md5(i::text || j), '') FROM generate_series(1, 1000) i, generate_series(1, 100) j GROUP BY i});
}
weir_wait($node);
ok($node->poll_query_until('postgres', "SELECT ($at) > '$before'"), 'after much of the log');
$node->stop('immediate');
$node->start;
weir_wait($node);
weir_same($node, 'total', 'SELECT count(*), sum(k), sum(length(x)) FROM s', 'exact after a crash');

weir_log_is_clean($node);
$node->stop;
done_testing();
