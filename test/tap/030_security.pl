# Attacks that need several sessions, a restart, or a server with other
# settings; the others are in sql/security.sql.
use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use lib 'test/tap';
use WeirTest;

my $node = PostgreSQL::Test::Cluster->new('security');
$node->init;
$node->append_conf('postgresql.conf', slurp_file('test/pg_weir.conf'));
$node->append_conf('postgresql.conf', "weir.state_memory = '16MB'\n");
$node->start;

sub sql { return $node->safe_psql('postgres', $_[0]); }

# As another role, in a session of its own: its output or its error.
sub sql_as
{
	my ($role, $query) = @_;
	my ($rc, $out, $err) = $node->psql('postgres', $query,
		extra_params => [ '-U', $role ], on_error_stop => 1);

	$err =~ s/^psql:<stdin>:\d+: //;
	$err =~ s/\n.*//s;
	return $rc == 0 ? $out : $err;
}

sub is_state
{
	my ($view, $state, $what) = @_;

	$node->poll_query_until('postgres',
		"SELECT concat_ws(': ', state, error) FROM weir.views WHERE view = '$view'::regclass",
		$state);
	is( sql("SELECT concat_ws(': ', state, error) FROM weir.views WHERE view = '$view'::regclass"),
		$state, $what);
}

sub worker_of
{
	return sql("SELECT worker_pid FROM weir.views WHERE view = '$_[0]'::regclass");
}

sql(q{
	CREATE EXTENSION pg_weir;
	CREATE ROLE alice LOGIN; CREATE ROLE evil LOGIN; CREATE ROLE operator LOGIN;
	GRANT pg_signal_backend TO operator;
	GRANT CREATE ON SCHEMA public TO alice, evil;
	CREATE TABLE s (a int, ts timestamptz NOT NULL)
		USING stream WITH (event_time = ts, watermark_delay = '0');
	GRANT SELECT, INSERT, TRIGGER ON s TO alice, evil;
	CREATE VIEW plain AS SELECT * FROM s;
	GRANT SELECT ON plain TO alice;
	CREATE TABLE usual (x int);
});

# ---- settings of databases and roles ----
sql_as('alice', q{
	CREATE FUNCTION env(anyelement) RETURNS text LANGUAGE plpgsql STABLE AS $$
	BEGIN
		RETURN concat_ws(' ', current_user, current_setting('search_path'),
			current_setting('TimeZone'), current_setting('DateStyle'),
			current_setting('row_security'), current_setting('session_replication_role'),
			current_setting('transaction_read_only'), current_setting('transaction_isolation'));
	END $$;
	SET TimeZone = 'Asia/Tokyo';
	CREATE MATERIALIZED VIEW v USING continuous AS
		SELECT window_start, max(env(a)) AS input, env(count(*)) AS final, count(*) AS n
		FROM plain, tumble(ts, '1 day') GROUP BY window_start;
});
sql("INSERT INTO s VALUES (1, '2020-01-01'), (2, '2020-01-02')");
weir_wait($node);
sql('SELECT weir.checkpoint()');
my $want = 'alice pg_catalog, pg_temp Asia/Tokyo ISO, MDY on origin off read committed';
my $rows = q{SELECT string_agg(DISTINCT e, '|') || ' ' || (sum(n) / 2)::int
	FROM v, unnest(ARRAY[input, final]) e};
is(sql($rows), "$want 2", 'environment of a view');

# our sessions must get through them themselves
my $through =
  '-c role=none -c statement_timeout=0 -c lock_timeout=0 -c default_transaction_read_only=off'
  . ' -c idle_in_transaction_session_timeout=0 -c row_security=on -c search_path=public'
  . ' -c default_transaction_isolation=read\\ committed -c restrict_nonsystem_relation_kind=';
my $nset = 0;
for my $set (
	"role = 'evil'", "search_path = 'public'",
	"TimeZone = 'America/New_York'", "DateStyle = 'German'",
	"default_transaction_read_only = on", "default_transaction_isolation = 'serializable'",
	"default_transaction_deferrable = on", "statement_timeout = '1ms'",
	"lock_timeout = '1ms'", "idle_in_transaction_session_timeout = '1ms'",
	"session_replication_role = 'replica'", "row_security = off",
	"restrict_nonsystem_relation_kind = 'view, foreign-table'",
	"default_table_access_method = 'stream'", "default_tablespace = 'pg_global'",
	"enable_seqscan = off", "jit_above_cost = 0", "constraint_exclusion = on")
{
	local $ENV{PGOPTIONS} = $through;
	# what this server does not have is not set
	$nset++ if $node->psql('postgres', "ALTER DATABASE postgres SET $set") == 0;
}
cmp_ok($nset, '>=', 16, 'settings of the database');
$node->psql('postgres', "ALTER ROLE alice SET search_path = 'public'",
	extra_params => ['--set=ON_ERROR_STOP=0']);
{
	local $ENV{PGOPTIONS} = $through;

	$node->restart;
	sql("INSERT INTO s VALUES (3, '2020-01-03')");
	weir_wait($node, 'settings of the database do not reach the worker');
	is(sql($rows), "$want 3", 'nor what a view shows');
	sql('SELECT weir.checkpoint()');
	is(sql($rows), "$want 3", 'nor final rows');
	sql('REFRESH MATERIALIZED VIEW v');
	weir_wait($node, 'nor a rebuild');
	is(sql($rows), "$want 3", 'nor its rows');
	sql('ALTER DATABASE postgres RESET ALL');
	sql('ALTER ROLE alice RESET ALL');
}
$node->restart;
weir_wait($node);

# ---- rights that went before a start ----
sql('REVOKE TRIGGER ON s FROM alice');
$node->restart;
is_state('v', 'failed: permission denied for stream "s"', 'rights are checked at start');
is(sql('SELECT sum(n) FROM v'), '3', 'rows of a view that cannot start');
sql('GRANT TRIGGER ON s TO alice');
sql(q{SELECT weir.resume('v')});
is_state('v', 'running', 'and after weir.resume()');
sql(q{SELECT weir.pause('v')});
is_state('v', 'paused', 'paused');
sql('REVOKE SELECT ON plain FROM alice');
sql(q{SELECT weir.resume('v')});
sql("INSERT INTO s VALUES (4, '2020-01-04')");
is_state('v', 'failed: permission denied for view plain', 'rights that went in a pause');
sql('GRANT SELECT ON plain TO alice');
sql(q{SELECT weir.resume('v')});
weir_wait($node);
is(sql('SELECT sum(n) FROM v'), '4', 'nothing is lost');

# ---- locks and signals ----
sql_as('evil', q{
	CREATE FUNCTION hold(i int) RETURNS int LANGUAGE plpgsql STABLE AS $$
	BEGIN PERFORM pg_advisory_lock(4711); RETURN i; END $$;
	CREATE MATERIALIZED VIEW holds USING continuous AS SELECT max(hold(a)) AS x FROM s;
});
weir_wait($node);
ok( $node->poll_query_until('postgres',
		q{SELECT count(*) = 0 FROM pg_locks WHERE locktype = 'advisory' AND objid = 4711}),
	'advisory locks do not stay with the worker');
sql('DROP MATERIALIZED VIEW holds');

my $busy = $node->background_psql('postgres', on_error_stop => 1);
$busy->query_safe('BEGIN; LOCK TABLE usual, s IN SHARE UPDATE EXCLUSIVE MODE');
for my $function ('pause', 'resume')
{
	for my $relation ('usual', 's')
	{
		is( sql_as('evil', "SET lock_timeout = '100ms'; SELECT weir.$function('$relation')"),
			qq{ERROR:  "$relation" is not a continuous view},
			"weir.$function() takes no lock on $relation");
	}
	is( sql_as('evil', "SET lock_timeout = '100ms'; SELECT weir.$function('v')"),
		'ERROR:  must be owner of materialized view v', "nor on another's view");
}
$busy->query_safe('COMMIT');
$busy->quit;

my $pid = worker_of('v');
for my $role ('evil', 'alice', 'operator')
{
	for my $function ('pg_terminate_backend', 'pg_cancel_backend')
	{
		like(sql_as($role, "SELECT $function($pid)"),
			qr/ERROR:  (must be|permission denied)/, "$role cannot call $function() on a worker");
	}
}
is(worker_of('v'), $pid, 'the worker is the same');

# ---- an aggregate that is exchanged while nobody looks ----
# bytes that are an array of 268435456 int8 to who believes it
for my $how ('terminate', 'restart', 'kill')
{
	sql_as('evil', q{
		SET client_min_messages = warning;
		DROP AGGREGATE IF EXISTS shift(int) CASCADE;
		CREATE OR REPLACE FUNCTION as_bytes(bytea, int) RETURNS bytea LANGUAGE sql IMMUTABLE AS
			$$SELECT '\x0100000000000000140000000000001001000000'::bytea$$;
		CREATE OR REPLACE FUNCTION end_bytes(bytea) RETURNS text LANGUAGE sql IMMUTABLE AS 'SELECT $1::text';
		CREATE OR REPLACE FUNCTION as_array(int8[], int) RETURNS int8[] LANGUAGE sql IMMUTABLE AS 'SELECT $1';
		CREATE OR REPLACE FUNCTION end_array(int8[]) RETURNS text LANGUAGE sql IMMUTABLE AS
			'SELECT $1[200000000]::text';
		CREATE AGGREGATE shift(int) (SFUNC = as_bytes, STYPE = bytea, FINALFUNC = end_bytes);
		CREATE MATERIALIZED VIEW shifted USING continuous AS SELECT shift(a) AS x FROM s;
	});
	weir_wait($node);
	sql('SELECT weir.checkpoint()');
	sql_as('evil', 'CREATE OR REPLACE AGGREGATE shift(int) (SFUNC = as_array, STYPE = int8[], FINALFUNC = end_array)');
	if ($how eq 'terminate')
	{
		$pid = worker_of('shifted');
		sql("SELECT pg_terminate_backend($pid, 60000)");
	}
	elsif ($how eq 'restart')
	{
		$node->restart;
	}
	else
	{
		weir_kill9($node);
		weir_start($node);
	}
	like(sql_as('evil', 'SELECT * FROM shifted'),
		qr/ERROR:  (an aggregate, a window or the type of a key of|checkpoint of) continuous view "shifted"/,
		"$how: read with another aggregate");
	ok( $node->poll_query_until('postgres',
			q{SELECT state = 'failed' FROM weir.views WHERE view = 'shifted'::regclass}),
		"$how: the view fails");
	like(sql_as('evil', 'SELECT * FROM shifted'),
		qr/ERROR:  (an aggregate, a window or the type of a key of|checkpoint of) continuous view "shifted"/,
		"$how: read after that");
	sql('DROP MATERIALIZED VIEW shifted');
}

# ---- memory ----
# a hog and a small view on one stream, another of somebody else's
sql(q{
	CREATE TABLE big (k int, filler text, ts timestamptz NOT NULL)
		USING stream WITH (event_time = ts);
	GRANT SELECT, TRIGGER, INSERT ON big TO evil;
});
sql_as('evil', q{
	CREATE MATERIALIZED VIEW hog USING continuous AS
		SELECT k, max(filler) AS m, count(*) AS n FROM big GROUP BY k;
});
sql_as('alice', q{
	CREATE MATERIALIZED VIEW few USING continuous AS SELECT a % 100000 AS k, count(*) AS n FROM s GROUP BY 1;
});
sql(q{CREATE MATERIALIZED VIEW small USING continuous AS SELECT k % 7 AS k, count(*) AS n FROM big GROUP BY 1});
weir_wait($node);
for my $i (1 .. 6)
{
	is(sql_as('evil', qq{INSERT INTO big SELECT $i * 100000 + i, repeat('x', 400), '2020-01-01' FROM generate_series(1, 8000) i}),
		'', 'the writer goes on');
}
ok( $node->poll_query_until('postgres', q{SELECT state = 'failed' FROM weir.views WHERE view = 'hog'::regclass}),
	'the hog runs out of memory');
is(sql(q{SELECT state || ': ' || error FROM weir.views WHERE view = 'hog'::regclass}),
	'failed: state memory of continuous views is exhausted', 'the hog fails');
is(sql(q{SELECT sqlstate FROM weir.errors WHERE view = 'hog'::regclass}), '53200', 'with its SQLSTATE');
is(sql(q{SELECT coalesce(state_bytes, 0) < 100000 FROM weir.views WHERE view = 'hog'::regclass}),
	't', 'and gives its memory back');
sql("INSERT INTO s SELECT i, '2020-01-05' FROM generate_series(1, 20000) i");
sql("INSERT INTO big SELECT i, 'x', '2020-01-01' FROM generate_series(1, 1000) i");
ok(sql(q{SELECT weir.wait_for('few') AND weir.wait_for('small') AND weir.wait_for('v')}) eq 't', 'others go on');
weir_same($node, 'small', 'SELECT k % 7, count(*) FROM big GROUP BY 1', 'a view in the same batches');
weir_same($node, 'few', 'SELECT a % 100000, count(*) FROM s GROUP BY 1', 'a view that needs memory itself');
is(sql(q{SELECT count(*) > 0 AND count(*) % 8000 = 0 AND min(n) = 1 AND max(n) = 1 FROM hog}),
	't', 'the hog shows what it had counted');
sql_as('evil', q{SELECT weir.resume('hog')});
ok( $node->poll_query_until('postgres', q{SELECT state = 'failed' FROM weir.views WHERE view = 'hog'::regclass}),
	'it does so again when it is resumed');
is(sql(q{SELECT weir.wait_for('few') AND weir.wait_for('small')}), 't', 'also while it tries again');
$node->restart;
ok( $node->poll_query_until('postgres', q{SELECT state = 'failed' FROM weir.views WHERE view = 'hog'::regclass}),
	'and is not tried at a restart');
is(sql(q{SELECT weir.wait_for('few') AND weir.wait_for('small')}), 't', 'and after a restart');
sql("INSERT INTO s SELECT i, '2020-01-06' FROM generate_series(20001, 25000) i");
is(sql(q{SELECT weir.wait_for('few')}), 't', 'with room for groups');
weir_same($node, 'few', 'SELECT a % 100000, count(*) FROM s GROUP BY 1');
is(sql(q{SELECT count(*) > 0 AND count(*) % 8000 = 0 FROM hog}), 't', 'the hog is still read');

weir_log_is_clean($node);
$node->stop;
done_testing();
