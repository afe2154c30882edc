# Errors that say nothing about the events: tried again for as long as they
# last, no event's fault, and seen meanwhile.

use strict;
use warnings;

use lib 'test/tap';
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use WeirTest;

my $node = weir_node('transient');

sub error_of
{
	my ($view) = @_;

	return $node->safe_psql('postgres',
		"SELECT state, error FROM weir.views WHERE view = '$view'::regclass");
}

# As a full disk while the function runs; the function's own words, so that the
# server need not be starved.
$node->safe_psql(
	'postgres', q{
	CREATE TABLE s (v int, ts timestamptz) USING stream WITH (event_time = ts, watermark_delay = '0');
	CREATE FUNCTION full_at(int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS $$
	BEGIN
		IF $1 = 13 THEN RAISE EXCEPTION 'no space left' USING ERRCODE = 'disk_full'; END IF;
		RETURN $1;
	END $$;
	CREATE MATERIALIZED VIEW fine USING continuous AS SELECT sum(v) AS s, count(*) AS n FROM s;
	CREATE MATERIALIZED VIEW held USING continuous WITH (on_error = skip) AS
		SELECT sum(full_at(v)) AS s, count(*) AS n FROM s;});
weir_wait($node);
my $from = -s $node->logfile;
$node->safe_psql('postgres',
	q{INSERT INTO s SELECT i, '2026-01-01 00:00:00Z' FROM generate_series(1, 20) i});
is($node->safe_psql('postgres', q{SELECT weir.wait_for('fine')}), 't', 'the other view goes on');
ok($node->poll_query_until('postgres', q{
	SELECT error = 'no space left' AND state = 'running' FROM weir.views WHERE view = 'held'::regclass}),
	'the error that holds a view up is shown');
# at the 6th try and the 9th
my $log = $node->logfile;
ok($node->poll_query_until('postgres', qq{
	SELECT regexp_count(pg_read_file('$log', $from, 1000000), 'batch of view [^\\n]* no space left') >= 2}),
	'the log tells of it, more than once');
is(error_of('fine'), 'running|', 'only that view shows it');
is(error_of('held'), 'running|no space left', 'the view has not failed');
$node->safe_psql(
	'postgres', q{
	CREATE OR REPLACE FUNCTION full_at(int) RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT $1'});
weir_wait($node, 'it goes on when the cause is gone');
$node->safe_psql('postgres', 'SELECT weir.checkpoint()');
is(error_of('held'), 'running|', 'nothing is shown any more');
weir_same($node, 'held', 'SELECT sum(v), count(*) FROM s', 'every event counts');
is($node->safe_psql('postgres', 'SELECT count(*) FROM weir.errors'), '0', 'none was at fault');

# A checkpoint that has to wait, while batches go on.
$node->safe_psql(
	'postgres', q{
	CREATE MATERIALIZED VIEW w USING continuous WITH (emit = final) AS
		SELECT window_start, count(*) AS n FROM s, tumble(ts, '1 minute') GROUP BY window_start;});
weir_wait($node);
my $session = $node->background_psql('postgres');
$session->query_safe('BEGIN; CREATE INDEX ON w (n)');
$node->safe_psql('postgres', q{INSERT INTO s VALUES (1, '2026-01-01 00:02:00Z')});
ok($node->poll_query_until('postgres', q{
	SELECT error ~ 'lock' AND state = 'running' FROM weir.views WHERE view = 'w'::regclass}),
	'a checkpoint that is held up is shown');
$node->safe_psql('postgres', q{INSERT INTO s VALUES (2, '2026-01-01 00:02:00Z')});
is($node->safe_psql('postgres', q{SELECT weir.wait_for('w')}), 't', 'batches go on');
like(error_of('w'), qr/^running\|.*lock/, 'and it is still shown');
$session->query_safe('COMMIT');
$session->quit;
ok($node->poll_query_until('postgres', q{
	SELECT error IS NULL AND state = 'running' FROM weir.views WHERE view = 'w'::regclass}),
	'not any more when it has succeeded');
weir_same($node, 'w', q{SELECT window_start, count(*) FROM s, tumble(ts, '1 minute')
	WHERE window_end <= weir.watermark('s') GROUP BY window_start}, 'the window has closed');

# A function that locks rows a and b, against sessions that lock b and a: the
# worker is the one whose wait closes the circle, more often than what user code
# raises itself is tried; and locks that the function does not wait for at all.
$node->safe_psql('postgres', q{ALTER SYSTEM SET deadlock_timeout = '50ms'});
$node->reload;
$node->safe_psql(
	'postgres', q{
	CREATE TABLE d (v int) USING stream;
	CREATE TABLE rows (name text PRIMARY KEY, n int);
	INSERT INTO rows VALUES ('a', 0), ('b', 0), ('c', 0);
	CREATE SEQUENCE tries;
	CREATE SEQUENCE over;
	-- sequences are of no transaction
	CREATE FUNCTION lock_both() RETURNS void VOLATILE LANGUAGE plpgsql AS $$
	BEGIN
		UPDATE public.rows SET n = n + 1 WHERE name = 'a';
		PERFORM nextval('public.tries');
		WHILE NOT (SELECT is_called FROM public.over)
			AND NOT EXISTS (SELECT FROM pg_locks WHERE locktype = 'transactionid' AND NOT granted)
		LOOP
			PERFORM pg_sleep(0.002);
		END LOOP;
		UPDATE public.rows SET n = n + 1 WHERE name = 'b';
	END $$;
	CREATE FUNCTION locks(int) RETURNS int STABLE LANGUAGE plpgsql AS
		$$ BEGIN PERFORM public.lock_both(); RETURN $1; END $$;
	CREATE FUNCTION lock_now() RETURNS void VOLATILE LANGUAGE plpgsql AS
		$$ BEGIN PERFORM FROM public.rows WHERE name = 'c' FOR UPDATE NOWAIT; END $$;
	CREATE FUNCTION nowait(int) RETURNS int STABLE LANGUAGE plpgsql AS
		$$ BEGIN PERFORM public.lock_now(); RETURN $1; END $$;
	CREATE FUNCTION lock_soon() RETURNS void VOLATILE LANGUAGE plpgsql SET lock_timeout = '1ms' AS
		$$ BEGIN PERFORM FROM public.rows WHERE name = 'c' FOR UPDATE; END $$;
	CREATE FUNCTION soon(int) RETURNS int STABLE LANGUAGE plpgsql AS
		$$ BEGIN PERFORM public.lock_soon(); RETURN $1; END $$;
	CREATE MATERIALIZED VIEW locking USING continuous WITH (on_error = skip) AS
		SELECT sum(locks(v)) AS s, count(*) AS n FROM d;
	CREATE MATERIALIZED VIEW not_waiting USING continuous WITH (on_error = skip) AS
		SELECT sum(nowait(v)) AS s, count(*) AS n FROM d;
	CREATE MATERIALIZED VIEW not_waiting_long USING continuous AS
		SELECT sum(soon(v)) AS s, count(*) AS n FROM d;
	CREATE MATERIALIZED VIEW beside USING continuous AS SELECT sum(v) AS s, count(*) AS n FROM d;});
weir_wait($node);
$from = -s $node->logfile;
$session = $node->background_psql('postgres', on_error_stop => 1);
# its own wait comes first and finds no circle
$session->query_safe(q{SET deadlock_timeout = '1h'; SET lock_timeout = 0});
my $c = $node->background_psql('postgres', on_error_stop => 1);
$c->query_safe(q{BEGIN; SELECT FROM rows WHERE name = 'c' FOR UPDATE});
$node->safe_psql('postgres', 'INSERT INTO d VALUES (5)');
for my $try (1 .. 10)
{
	$session->query_safe(q{BEGIN; UPDATE rows SET n = n WHERE name = 'b'});
	ok($node->poll_query_until('postgres', "SELECT last_value >= $try AND is_called FROM tries"), "try $try");
	$session->query_safe(q{UPDATE rows SET n = n WHERE name = 'a'; COMMIT});
}
$node->safe_psql('postgres', q{SELECT setval('over', 1)});
$session->quit;
is($node->safe_psql('postgres', q{SELECT weir.wait_for('beside') AND weir.wait_for('locking')}), 't', 'the worker goes on after deadlocks');
my @met = slurp_file($node->logfile, $from) =~ /(deadlock detected)/g;
cmp_ok(scalar @met, '>=', 1, 'of which the log tells');
is($node->safe_psql('postgres', q{SELECT last_value > 10 FROM tries}), 't', 'they were met');
ok($node->poll_query_until('postgres', qq{
	SELECT count(*) = 2 AND bool_and(state = 'running' AND error ~ 'lock') FROM weir.views
	WHERE view IN ('not_waiting'::regclass, 'not_waiting_long'::regclass)}), 'locks that are not waited for hold the view up');
$c->query_safe('COMMIT');
$c->quit;
weir_wait($node, 'all go on');
$node->safe_psql('postgres', 'SELECT weir.checkpoint()');
for my $view (qw(locking not_waiting not_waiting_long beside))
{
	weir_same($node, $view, 'SELECT sum(v), count(*) FROM d');
	is(error_of($view), 'running|', "$view runs");
}
is($node->safe_psql('postgres', 'SELECT count(*) FROM weir.errors'), '0', 'no event was at fault');

# A worker that gets no memory when it loads a view's state tries again.
SKIP:
{
	skip 'needs a DEBUG=1 build', 4
	  if $node->psql('postgres', 'SHOW weir.debug_points') != 0;
	$node->append_conf('postgresql.conf', "weir.debug_points = 'view-open=memory'");
	$from = -s $node->logfile;
	$node->restart;
	# at the 6th try; a state that does not fit would have been given up at the 4th
	ok($node->poll_query_until('postgres', qq{
		SELECT regexp_count(pg_read_file('$log', $from, 1000000), 'view [0-9]+ not opened: out of memory|has failed') >= 1}),
		'a view is not opened for want of memory');
	is($node->safe_psql('postgres', q{SELECT count(*) FROM weir.views WHERE state = 'failed'}), '0', 'none has failed');
	$node->append_conf('postgresql.conf', "weir.debug_points = ''");
	$node->reload;
	weir_wait($node, 'all are opened');
	weir_same($node, 'beside', 'SELECT sum(v), count(*) FROM d');
}

weir_log_is_clean($node);
$node->stop;
done_testing();
