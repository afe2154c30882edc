# Whoever waits for a worker can be cancelled and terminated, and what he waited
# for goes on; and no function of a view keeps a worker from ending.

use strict;
use warnings;

use lib 'test/tap';
use IPC::Run;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use WeirTest;

# nothing is saved unless it is asked for
my $node = weir_node('waits', conf => "weir.max_workers = 1\nweir.checkpoint_interval = '1h'");

sub sql { return $node->safe_psql('postgres', $_[0]); }

# The statement waits, and ends when it is cancelled, or its session terminated.
sub ends
{
	my ($what, $db, $statement, $waits_at) = @_;

	for my $how ([ 'pg_cancel_backend', '57014' ], [ 'pg_terminate_backend', '57P01' ])
	{
		my ($function, $code) = @$how;
		my $err = '';
		my $psql = IPC::Run::start(
			[ 'psql', '-XAtq', '-v', 'VERBOSITY=sqlstate', '-c', $statement,
				'-d', $node->connstr($db) . ' application_name=waiter' ], '>', \my $out, '2>', \$err);
		# it wakes up now and then, to look
		my $waiter = q{pg_stat_activity WHERE application_name = 'waiter'};

		ok($node->poll_query_until('postgres', "SELECT count(*) = 1 FROM $waiter AND wait_event = '$waits_at'"), "$what waits");
		is(sql("SELECT $function(pid) FROM $waiter"), 't', "$what: $function");
		ok(!IPC::Run::finish($psql), "$what ends");
		like($err, qr/(?:ERROR|FATAL):  $code/, "$what: as it was told");
		ok($node->poll_query_until('postgres', q{SELECT count(*) = 0 FROM pg_stat_activity WHERE application_name = 'waiter'}),
			"$what: the session is what it should be");
	}
	return;
}

sql(q{
	CREATE SEQUENCE go;
	-- until somebody lets it
	CREATE FUNCTION held(int) RETURNS int STABLE LANGUAGE plpgsql AS $$
	BEGIN
		WHILE $1 = 13 AND NOT (SELECT is_called FROM public.go) LOOP PERFORM pg_sleep(0.01); END LOOP;
		RETURN $1;
	END $$;
	CREATE FUNCTION slow(bigint) RETURNS bigint STABLE LANGUAGE plpgsql AS $$
	BEGIN
		IF NOT (SELECT is_called FROM public.go) THEN PERFORM pg_sleep(86400); END IF;
		RETURN $1;
	END $$;
	CREATE TABLE s (a int) USING stream;
	CREATE TABLE other (a int) USING stream;
	CREATE MATERIALIZED VIEW v USING continuous AS SELECT a, count(held(a)) AS n FROM s GROUP BY a;
	CREATE MATERIALIZED VIEW o USING continuous AS SELECT a, count(*) AS n FROM other GROUP BY a;
	INSERT INTO s VALUES (1);
	INSERT INTO other VALUES (1), (2)});
weir_wait($node);
# a view that has been built is saved
sql('SELECT weir.checkpoint(); INSERT INTO other VALUES (3)');
weir_wait($node);
# now the only worker stands in a function of v; o has counted what is not saved
sql('INSERT INTO s VALUES (13), (2)');
ok($node->poll_query_until('postgres', q{
	SELECT count(*) = 1 FROM pg_stat_activity a JOIN weir.views w ON a.pid = w.worker_pid
	WHERE view = 'v'::regclass AND wait_event = 'PgSleep'}), 'the worker is busy');
sql(q{CREATE MATERIALIZED VIEW built USING continuous AS SELECT slow(count(*)) AS n FROM s});

ends('weir.wait_for() of a view', 'postgres', q{SELECT weir.wait_for('v', '1 day')}, 'Extension');
ends('weir.wait_for() of all', 'postgres', q{SELECT weir.wait_for(timeout => '1 day')}, 'Extension');
ends('weir.checkpoint()', 'postgres', 'SELECT weir.checkpoint()', 'Extension');
ends('TRUNCATE', 'postgres', 'TRUNCATE other', 'Extension');
is(sql('SELECT count(*) FROM other'), '3', 'it has not been done');
is(sql(q{SELECT state FROM weir.views WHERE view = 'built'::regclass}), 'building', 'a view is being built');
ends('SELECT of a view that is being built', 'postgres', 'SELECT * FROM built', 'PgSleep');

sql(q{SELECT nextval('go')});
sql('INSERT INTO s VALUES (3); INSERT INTO other VALUES (4)');
weir_wait($node, 'all goes on');
weir_same($node, 'v', 'SELECT a, count(*) FROM s GROUP BY a');
weir_same($node, 'o', 'SELECT a, count(*) FROM other GROUP BY a');
weir_same($node, 'built', 'SELECT count(*) FROM s');
is(sql('SELECT weir.checkpoint(); TRUNCATE other; SELECT count(*) FROM other; SELECT sum(n) FROM o'), "\n0\n4",
	'also what was waited for');

# DROP DATABASE waits for a worker that stands where nothing ends it
SKIP:
{
	skip 'no debug points in this build', 1 if $node->psql('postgres', 'SHOW weir.debug_points') != 0;
	sql('CREATE DATABASE dropped');
	$node->safe_psql('dropped', q{
		CREATE EXTENSION pg_weir;
		CREATE TABLE s (a int) USING stream;
		CREATE MATERIALIZED VIEW v USING continuous AS SELECT count(*) AS n FROM s;
		SELECT weir.wait_for()});
	my $lock = $node->background_psql('dropped', on_error_stop => 1);
	$lock->query_safe(q{SELECT pg_advisory_lock(1465207378, hashtext('batch-folded'))});
	sql(q{ALTER SYSTEM SET weir.debug_points = 'batch-folded=wait'});
	$node->reload;
	$node->safe_psql('dropped', 'INSERT INTO s VALUES (1)');
	ok($node->poll_query_until('dropped', q{SELECT count(*) = 1 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted}),
		'a worker stands');
	ends('DROP DATABASE', 'postgres', 'DROP DATABASE dropped', 'Extension');
	sql('ALTER SYSTEM RESET weir.debug_points');
	$node->reload;
	$lock->query_safe('SELECT pg_advisory_unlock_all()');
	is($node->safe_psql('dropped', 'INSERT INTO s VALUES (2); SELECT weir.wait_for(); SELECT n FROM v'), "t\n2",
		'the database is as it was, with workers');
	$lock->quit;
	sql('DROP DATABASE dropped');
}

# A function that goes on when it is cancelled.
sql(q{
	CREATE FUNCTION stubborn(int) RETURNS int STABLE LANGUAGE plpgsql AS $$
	BEGIN
		LOOP
			BEGIN
				PERFORM pg_sleep(86400);
			EXCEPTION WHEN query_canceled THEN NULL;
			END;
		END LOOP;
	END $$;
	CREATE MATERIALIZED VIEW st USING continuous AS SELECT count(stubborn(a)) AS n FROM s WHERE a = 77;
	INSERT INTO s VALUES (77)});
my $stands = q{SELECT pid FROM pg_stat_activity WHERE backend_type = 'pg_weir worker' AND wait_event = 'PgSleep'};
ok($node->poll_query_until('postgres', "SELECT count(*) = 1 FROM ($stands) x"), 'a function that does not end');
my $pid = sql($stands);
sql("SELECT pg_terminate_backend($pid)");
ok($node->poll_query_until('postgres', "SELECT count(*) = 0 FROM pg_stat_activity WHERE pid = $pid"), 'its worker ends when it is told to');
ok($node->poll_query_until('postgres', "SELECT count(*) = 1 FROM ($stands) x"), 'another comes, and stands there');
# waits for it
$node->stop('fast');
$node->start;
ok($node->poll_query_until('postgres', "SELECT count(*) = 1 FROM ($stands) x"), 'also after a restart');
sql(q{SELECT weir.pause('st')});
sql("SELECT pg_terminate_backend(pid) FROM ($stands) x");
is(sql(q{INSERT INTO s VALUES (4); SELECT weir.wait_for('v')}), 't', 'the others go on');
weir_same($node, 'v', 'SELECT a, count(*) FROM s GROUP BY a');

# Code that does not end, though it lets itself be cancelled: of two views, and
# where windows are closed, which the last checkpoint does, too.
sql(q{
	DROP MATERIALIZED VIEW st;
	CREATE FUNCTION endless(int) RETURNS int STABLE LANGUAGE plpgsql AS $$
	BEGIN
		IF $1 = 78 THEN PERFORM pg_sleep(86400); END IF;
		RETURN $1;
	END $$;
	CREATE TABLE w (a int, ts timestamptz NOT NULL) USING stream WITH (event_time = ts, watermark_delay = '0');
	CREATE MATERIALIZED VIEW e1 USING continuous AS SELECT count(endless(a)) AS n FROM s;
	CREATE MATERIALIZED VIEW e2 USING continuous AS SELECT sum(endless(a)) AS n FROM s;
	CREATE MATERIALIZED VIEW closes USING continuous AS
		SELECT window_start, endless(77 + max(a)) AS n FROM w, tumble(ts, '1 min') GROUP BY window_start;
	SELECT weir.wait_for('e1'), weir.wait_for('e2'), weir.wait_for('closes');
	INSERT INTO s VALUES (78)});
ok($node->poll_query_until('postgres', "SELECT count(*) = 1 FROM ($stands) x"), 'functions that do not end');
$node->stop('fast');
$node->start;
ok($node->poll_query_until('postgres', "SELECT count(*) = 1 FROM ($stands) x"), 'after a stop again');
sql(q{SELECT weir.pause('e1'), weir.pause('e2')});
sql("SELECT pg_terminate_backend(pid) FROM ($stands) x");
# nothing is saved before the stop
sql(q{SELECT weir.wait_for('closes'); INSERT INTO w VALUES (1, '2026-01-01Z'), (2, '2026-01-02Z'); SELECT weir.wait_for('closes')});
$node->stop('fast');
$node->start;
is(sql(q{DROP MATERIALIZED VIEW closes, e1, e2; SELECT weir.wait_for('v')}), 't', 'the server has stopped, and the others go on');
weir_same($node, 'v', 'SELECT a, count(*) FROM s GROUP BY a');

weir_log_is_clean($node);
$node->stop;
done_testing();
