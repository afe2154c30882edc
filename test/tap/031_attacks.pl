# Scripted attacks on streams and views, numbered, by kind of attacker.  Each
# says what happens exactly: the SQLSTATE it is refused with, or that what it
# is after does not happen and the views of others equal their queries.
# sql/security.sql and 030_security.pl have more, where one session or a role's
# rights in time are the point.
use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use lib 'test/tap';
use WeirTest;

my $node = weir_node('attacks');
my $attacks = 0;
my $who;

sub sql { return $node->safe_psql('postgres', $_[0]); }

# What a role sees, unaligned, then its errors, as SQLSTATEs.
sub sql_as
{
	my ($role, $query) = @_;
	my ($rc, $out, $err) = $node->psql('postgres', "\\set VERBOSITY sqlstate\n$query",
		extra_params => [ $role ? ('-U', $role) : () ], on_error_stop => 0);

	$err =~ s/^psql:\S+ //mg;
	return join "\n", grep { $_ ne '' } $out, $err;
}

sub attack { $attacks++; return "attack $attacks, $who: $_[0]"; }

# Every statement, in one session, is refused with this SQLSTATE.
sub refused
{
	my ($name, $code, @statements) = @_;
	my ($rc, $out, $err) = $node->psql('postgres',
		join("\n", '\set VERBOSITY sqlstate', map { "$_;\n\\warn ====" } @statements),
		extra_params => [ '-U', $who ], on_error_stop => 0);
	my @got = split /====\n?/, $err;
	my @wrong;

	for my $i (0 .. $#statements)
	{
		my ($sqlstate) = ($got[$i] // '') =~ /ERROR:  (\w{5})/;

		push @wrong, ($sqlstate // 'done') . ": $statements[$i]" if ($sqlstate // '') ne $code;
	}
	is_deeply(\@wrong, [], attack("$name ($code)"));
}

# The attack is over, and this is what is left of it.
sub is_left { is($_[1], $_[2], attack($_[0])); }

# Views that nobody may touch, with their queries.
my %views = (
	v => 'SELECT a, count(*), sum(a) FROM s GROUP BY a',
	w => q{SELECT window_end, a, count(*), max(secret)
		FROM (SELECT a, secret, ts FROM s EXCEPT ALL SELECT a, secret, ts FROM missed) s,
			tumble(ts, '1 minute', '1970-01-01 UTC') GROUP BY 1, 2});

sub all_is_well
{
	my ($what) = @_;

	weir_wait($node, "$what: views go on");
	sql('SELECT weir.checkpoint()');
	weir_same($node, $_, $views{$_}, "$what: $_ equals its query") for sort keys %views;
}

sub state_of
{
	my ($view) = @_;
	my $state = "SELECT concat_ws(': ', state, error) FROM weir.views WHERE view = '$view'::regclass";

	$node->poll_query_until('postgres', "SELECT ($state) !~ '^(running|building)'");
	return sql($state);
}

sql(q{
	CREATE ROLE stranger LOGIN; CREATE ROLE writer LOGIN; CREATE ROLE reader LOGIN;
	CREATE ROLE admin LOGIN; CREATE ROLE alice LOGIN; CREATE ROLE evil LOGIN;
	CREATE ROLE maker LOGIN; CREATE ROLE dbo LOGIN; CREATE ROLE limited LOGIN;
	ALTER DATABASE postgres OWNER TO dbo;
	GRANT CREATE ON SCHEMA public TO admin, alice;
	CREATE SCHEMA trap; GRANT USAGE, CREATE ON SCHEMA trap TO PUBLIC;
});
sql_as('admin', q{
	CREATE TABLE s (a int, secret text, ts timestamptz NOT NULL)
		USING stream WITH (event_time = ts, watermark_delay = '0');
	GRANT SELECT, TRIGGER ON s TO alice;
	GRANT SELECT (a, ts), TRIGGER ON s TO evil;
	GRANT INSERT ON s TO writer;
	CREATE VIEW barrier WITH (security_barrier) AS SELECT a, secret, ts FROM s WHERE a < 5;
	GRANT SELECT ON barrier TO evil;
});
sql_as('alice', q{
	CREATE MATERIALIZED VIEW v USING continuous AS SELECT a, count(*) AS n, sum(a) AS x FROM s GROUP BY a;
	CREATE MATERIALIZED VIEW w USING continuous WITH (late_table = 'missed') AS
		SELECT window_end, a, count(*) AS n, max(secret) AS m FROM s, tumble(ts, '1 minute') GROUP BY window_end, a;
	CREATE INDEX ON w (a);
	CREATE VIEW shown WITH (security_barrier) AS SELECT * FROM w WHERE a < 5;
	GRANT SELECT ON v, w, shown TO reader;
	GRANT SELECT ON shown TO evil;
});
sub feed
{
	my ($minute) = @_;

	sql(qq{INSERT INTO s SELECT a, 'hidden ' || a, '2020-01-01'::timestamptz + interval '$minute minutes'
		FROM generate_series(1, 9) a});
}
feed(0);
feed(10);
weir_wait($node);
sql('SELECT weir.checkpoint(); ANALYZE s, v, w');
my $worker = sql(q{SELECT worker_pid FROM weir.views WHERE view = 'v'::regclass});


# ---- anybody ----
$who = 'stranger';

refused('read a stream, a view, a late table', '42501',
	'SELECT * FROM s', 'SELECT a FROM s WHERE false', 'SELECT count(*) FROM v', 'TABLE w', 'TABLE missed', 'TABLE shown',
	'COPY s TO STDOUT', 'COPY v TO STDOUT', 'EXPLAIN SELECT * FROM v', 'EXPLAIN (ANALYZE, VERBOSE) SELECT * FROM w',
	'SELECT * FROM v FOR UPDATE', 'BEGIN; LOCK TABLE s IN ACCESS SHARE MODE; ROLLBACK', 
	'CREATE MATERIALIZED VIEW trap.x USING continuous AS SELECT count(*) FROM s',
	'CREATE TABLE trap.x AS SELECT * FROM v');
my @tables = split /\n/,
	sql(q{SELECT oid::regclass FROM pg_class WHERE relnamespace = 'weir'::regnamespace AND relkind = 'r' ORDER BY 1});
cmp_ok(scalar @tables, '>=', 6, 'tables of the extension');
refused('read and write the tables of the extension', '42501',
	# weir.view_dump is for whoever dumps and restores views of his own
	(map { ("DELETE FROM $_", "TRUNCATE $_", "BEGIN; LOCK TABLE $_; ROLLBACK") } @tables),
	(map { ("SELECT * FROM $_", "INSERT INTO $_ DEFAULT VALUES") } grep { $_ ne 'weir.view_dump' } @tables),
	q{SELECT nextval('weir.error_log_id_seq')}, q{SELECT setval('weir.error_log_id_seq', 1)});
refused('functions of weir on what is not his', '42501',
	map { "SELECT weir.$_" } q{explain('v')}, q{watermark('v')}, q{watermark('s')}, q{is_final('w', now())}, q{wait_for('v')},
	q{pause('v')}, q{resume('v')}, q{advance_watermark('s', '2020-01-01')}, q{advance_watermark('s', 'infinity')}, 'checkpoint()');
refused('statements on what is not his', '42501',
	'REFRESH MATERIALIZED VIEW v', 'REFRESH MATERIALIZED VIEW v WITH NO DATA', 'ALTER MATERIALIZED VIEW v SET (on_error = skip)',
	'ALTER MATERIALIZED VIEW v RENAME TO x', 'ALTER MATERIALIZED VIEW v OWNER TO stranger', 'ALTER TABLE v SET SCHEMA trap',
	q{ALTER TABLE s SET (retention = '1 s')}, 'DROP MATERIALIZED VIEW v', 'DROP TABLE s CASCADE', 'TRUNCATE s',
	'CREATE INDEX ON v (n)', 'REINDEX TABLE v', 'CLUSTER w USING w_a_idx', 'CREATE STATISTICS trap.x ON a, n FROM v',
	'CREATE TRIGGER t BEFORE INSERT ON s EXECUTE FUNCTION suppress_redundant_updates_trigger()',
	'CREATE RULE r AS ON INSERT TO s DO INSTEAD NOTHING', 'CREATE POLICY p ON s', 'GRANT SELECT ON v TO stranger WITH GRANT OPTION',
	q{COMMENT ON MATERIALIZED VIEW v IS 'x'});
is_left('what weir.views, weir.streams, weir.errors and weir.workers tell him',
	sql_as($who, q{SELECT (SELECT count(*) FROM weir.views), (SELECT count(*) FROM weir.streams),
		(SELECT count(*) FROM weir.errors), (SELECT count(*) FROM weir.workers WHERE views <> '{}')}), '0|0|0|0');
is_left('what a dump tells him', sql_as($who, 'SELECT count(*) FROM weir.view_dump'), '0');
sql_as($who, q{INSERT INTO weir.view_dump VALUES ('v', 'end', '{0,0,0}'), ('w', 'view', '{1}')});
is_left('a dump of his own making', sql('SELECT count(*) FROM weir.view_import'), '0');
sql(q{SELECT weir.pause('v')});
$node->psql('postgres', 'SELECT weir.wait_for()', extra_params => [ '-U', $who ], stderr => \my $warned);
is_left('the state of a view by waiting for all', $warned, '');
sql(q{SELECT weir.resume('v')});
is_left('what planner statistics tell him',
	sql_as($who, q{SELECT count(*) FROM pg_stats WHERE tablename IN ('s', 'v', 'w')}), '0');
cmp_ok(sql(q{SELECT count(*) FROM pg_stats WHERE tablename IN ('s', 'v', 'w')}), '>', 5, 'which are there');
is_left('what a worker shows in pg_stat_activity',
	sql_as($who, "SELECT query FROM pg_stat_activity WHERE pid = $worker"), '<insufficient privilege>');
sql_as($who, q{
	CREATE OPERATOR trap.@@@ (leftarg = timestamptz, rightarg = interval, function = weir.session_start);
	CREATE OPERATOR trap.@@@ (leftarg = timestamp, rightarg = interval, function = weir.session_end)});
refused('call a window function without a window', '42P20',
	map { "SELECT '2020-01-01'::$_ OPERATOR(trap.@\@@) interval '1 s'" } 'timestamptz', 'timestamp');
refused('call what takes internal', '42883',
	'SELECT weir.stream_handler(NULL)', q{SELECT weir.stream_handler('x')}, 'SELECT weir.continuous_handler(0)',
	'SELECT weir.continuous_handler(1::oid)');
refused('use handlers and functions in C for himself', '42501',
	'CREATE ACCESS METHOD x TYPE TABLE HANDLER weir.stream_handler',
	q{CREATE FUNCTION trap.f(regclass) RETURNS void LANGUAGE c AS '$libdir/pg_weir', 'weir_stats_pause'},
	q{CREATE FUNCTION trap.f(int) RETURNS int LANGUAGE internal AS 'int4abs'},
	q{SELECT weir.first_accum(NULL, 1, now())},
	q{SELECT weir.first_last_final('\x00', 1, now())},
	'CREATE AGGREGATE trap.forged(int, timestamptz) (SFUNC = weir.last_accum, STYPE = bytea)');
refused('sets without end', '22023',
	'SELECT count(*) FROM weir.count_windows(-9223372036854775808, 1, 1, 1)', 'SELECT count(*) FROM weir.count_windows(0, 1, 1, 1)',
	'SELECT count(*) FROM weir.count_windows(5, 1, 9223372036854775807, 1)', q{SELECT weir.window_count('1 us', '1000 days', false)},
	q{SELECT weir.window_count('1 us', '1000 days', true)}, q{SELECT * FROM hop(now(), '1 us', '1000 days')},
	q{SELECT weir.wait_for(NULL, '-1 s')});
refused('relations that do not exist', '42P01',
	map { my $n = $_; map { "SELECT weir.$_" } "explain($n)", "watermark($n)", "is_final($n, now())", "wait_for($n)", "pause($n)",
	"resume($n)", "advance_watermark($n, now())", "log_order($n, '(0,1)')" } 0, 4294967295);
refused('relations of another kind', '42809',
	map { my $n = $_; map { "SELECT weir.$_" } "explain($n)", "is_final($n, now())", "wait_for($n)", "pause($n)",
	"resume($n)", "advance_watermark($n, now())", "log_order($n, '(0,1)')" } q{'pg_class'}, q{'pg_class_oid_index'}, q{'weir.views'});
refused('settings of the server', '55P02', q{SET weir.state_memory = '1GB'}, 'SET weir.max_workers = 64',
	q{SET weir.checkpoint_interval = '1 d'}, 'ALTER ROLE stranger SET weir.max_workers = 64');
refused('settings that do not exist', '42602', 'SET weir.role = x', q{SELECT set_config('weir.x', 'y', false)});


# ---- who may insert ----
$who = 'writer';

refused('read by writing', '42501', q{INSERT INTO s VALUES (1, 'x', now()) RETURNING secret}, 'INSERT INTO s SELECT * FROM s',
	'COPY s TO STDOUT', 'COPY (INSERT INTO s SELECT a FROM s RETURNING a) TO STDOUT', q{COPY s FROM PROGRAM 'true'});
refused('write where he may not', '42501', q{INSERT INTO missed (a) VALUES (1)}, 'DELETE FROM missed', 'INSERT INTO weir.error_log DEFAULT VALUES',
	'TRUNCATE s', 'CREATE TRIGGER t BEFORE INSERT ON s EXECUTE FUNCTION suppress_redundant_updates_trigger()');
refused('end the stream', '42501', q{SELECT weir.advance_watermark('s', 'infinity')});
refused('make all windows final', '22008', q{SELECT weir.advance_watermark('s', '9999-01-01')}, q{INSERT INTO s VALUES (1, 'x', '9999-01-01')});
$who = 'alice';
refused('write into a view, also as its owner', '42809', 'INSERT INTO v VALUES (1, 1, 1)', 'UPDATE v SET n = 0', 'DELETE FROM v',
	'CREATE TRIGGER t BEFORE INSERT ON v EXECUTE FUNCTION suppress_redundant_updates_trigger()');
$who = 'writer';
sql_as('alice', q{
	CREATE MATERIALIZED VIEW quotient USING continuous AS SELECT sum(1 / a) AS x FROM s;
	CREATE MATERIALIZED VIEW numbers USING continuous AS SELECT max(substr(secret, 8)::int) AS x FROM s;
	CREATE MATERIALIZED VIEW skips USING continuous WITH (on_error = skip) AS SELECT sum(1 / a) AS x FROM s;
	GRANT SELECT ON quotient, numbers, skips TO reader;
});
weir_wait($node);
my $odd = q{E'\x01"\\\\u0000%s%n\n\'ÿ' || U&'\+01F600'};
sql_as($who, "INSERT INTO s VALUES (0, 'hidden ' || $odd, '2020-01-01 00:20')");
is_left('an event that fails one view', state_of('quotient'), 'failed: division by zero');
is_left('an event that is quoted in the error', state_of('numbers'), sql("SELECT 'failed: invalid input syntax for type integer: \"' || $odd || '\"'"));
weir_wait($node, 'the view that skips goes on');
sql('SELECT weir.checkpoint()');
is_left('an event that is kept with the error',
	sql("SELECT event ->> 'secret' = 'hidden ' || $odd FROM weir.errors WHERE view = 'skips'::regclass"), 't');
is_left('a reader looks for it',
	sql_as('reader', q{SELECT count(*), count(event), count(message), count(DISTINCT view) FROM weir.errors;
		SELECT count(*), count(error) FROM weir.views WHERE state = 'failed'}), "3|0|0|3\n2|0");
$node->psql('postgres', q{SELECT weir.wait_for('quotient')}, extra_params => [ '-U', 'reader' ], stderr => \my $err);
unlike($err, qr/zero/, attack('what the error of weir.wait_for() says'));
sql('DROP MATERIALIZED VIEW quotient, numbers, skips');
is_left('a value of 5 MB', sql_as($who, q{INSERT INTO s VALUES (1, repeat('x', 5000000), '2020-01-01 00:20')}), '');
is_left('a transaction left prepared',
	sql_as($who, q{BEGIN; INSERT INTO s VALUES (1, 'prepared', '2020-01-01 00:20'); PREPARE TRANSACTION 'left'}), '');
feed(20);
all_is_well('writers');
sql(q{ROLLBACK PREPARED 'left'});


# ---- who may create views ----
$who = 'evil';

sql_as('evil', q{CREATE FUNCTION trap.fired() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RAISE ''fired as %'', current_user; END'});
my $busy = $node->background_psql('postgres', on_error_stop => 1);
$busy->query_safe(q{BEGIN; INSERT INTO s VALUES (1, 'hidden', '2020-01-01 00:20')});
# with the lock that CREATE TRIGGER takes he would wait for it, and writers for him
refused('TRIGGER on a stream, to run as its writers', '42501', q{SET lock_timeout = '10ms'; } .
	'CREATE TRIGGER t BEFORE INSERT ON s FOR EACH ROW EXECUTE FUNCTION trap.fired()',
	'CREATE TRIGGER t AFTER INSERT ON public.s EXECUTE FUNCTION trap.fired()',
	'CREATE CONSTRAINT TRIGGER t AFTER INSERT ON "s" DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION trap.fired()');
$busy->query_safe('COMMIT');
$busy->quit;
is_left('and nothing fires', sql_as('writer', q{INSERT INTO s VALUES (1, 'hidden', '2020-01-01 00:20')}), '');
is(sql_as('admin', q{CREATE TRIGGER t BEFORE INSERT ON s FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger(); DROP TRIGGER t ON s}),
	'', 'the owner of a stream creates triggers');

refused('columns that he may not read', '42501', map { "CREATE MATERIALIZED VIEW trap.x USING continuous AS $_" }
	'SELECT max(secret) FROM s', 'SELECT count(*) FROM s WHERE secret > \'m\'', 'SELECT count(s) FROM s', 'SELECT max(s::text) FROM s',
	'SELECT count(*) FROM s GROUP BY secret', 'SELECT count(*) FROM s HAVING max(secret) > \'m\'',
	'SELECT max(x.secret) FROM (SELECT * FROM s) x', 'WITH x AS (SELECT secret FROM s) SELECT max(secret) FROM x',
	'SELECT string_agg(a::text, \',\' ORDER BY secret) FROM s', 'SELECT count(*) FILTER (WHERE secret IS NULL) FROM s');
sql_as('evil', q{
	CREATE VIEW trap.mine AS SELECT a, secret, ts FROM s;
	CREATE VIEW trap.invoker WITH (security_invoker) AS SELECT a, secret, ts FROM s;
	CREATE VIEW trap.both WITH (security_invoker) AS SELECT a, secret FROM trap.mine});
refused('the same through plain views', '42501', map { "CREATE MATERIALIZED VIEW trap.x USING continuous AS SELECT max(secret) FROM trap.$_" }
	'mine', 'invoker', 'both');
is_left('plain views that alice then reads as herself',
	sql_as('evil', 'GRANT SELECT ON trap.mine, trap.invoker TO alice') .
	sql_as('alice', q{
	CREATE MATERIALIZED VIEW through USING continuous AS SELECT max(secret) AS m FROM trap.mine;
	CREATE MATERIALIZED VIEW through USING continuous AS SELECT max(secret) AS m FROM trap.invoker;
	SELECT weir.wait_for('through');
	SELECT m = (SELECT max(secret) FROM s) FROM through;
	DROP MATERIALIZED VIEW through}), "t\nt\nERROR:  42501");

# functions that tell what they see
sql_as('evil', q{
	CREATE TABLE trap.seen (what text);
	GRANT INSERT ON trap.seen TO PUBLIC;
	CREATE FUNCTION trap.note(text) RETURNS void LANGUAGE plpgsql AS 'BEGIN INSERT INTO trap.seen VALUES ($1); END';
	CREATE FUNCTION trap.peek(text) RETURNS bool LANGUAGE plpgsql STABLE COST 0.0001 AS 'BEGIN PERFORM trap.note($1); RETURN true; END';
	CREATE FUNCTION trap.peek_equal(text, text) RETURNS bool LANGUAGE plpgsql STABLE COST 0.0001 AS
		'BEGIN PERFORM trap.note($1); RETURN pg_catalog.texteq($1, $2); END';
	CREATE OPERATOR trap.=== (leftarg = text, rightarg = text, function = trap.peek_equal, hashes, merges, restrict = eqsel, join = eqjoinsel);
	CREATE MATERIALIZED VIEW trap.peeks USING continuous WITH (on_error = skip) AS
		SELECT a, count(*) AS n, count(*) FILTER (WHERE trap.peek('filter ' || secret)) AS f, sum(1 / (a - 7)) AS x
		FROM barrier WHERE trap.peek(secret) AND secret OPERATOR(trap.===) secret GROUP BY a});
weir_wait($node);
sql('SELECT weir.checkpoint()');
is_left('rows behind a security barrier, in the worker', sql(q{SELECT count(*) > 0, count(*) FILTER (WHERE what ~ '[5-9]') FROM trap.seen}), 't|0');
is_left('and by errors', sql(q{SELECT count(*) FROM weir.errors WHERE view = 'trap.peeks'::regclass}), '0');
sql('DROP MATERIALIZED VIEW trap.peeks; TRUNCATE trap.seen');
is_left('rows behind a security barrier, reading a view',
	sql_as('evil', q{SELECT sum(n) > 0 FROM shown WHERE trap.peek(m);
		SELECT count(*) > 0 FROM shown WHERE m OPERATOR(trap.===) 'hidden 1';
		SELECT count(*) FROM shown JOIN (VALUES ('hidden 1')) x(m) ON shown.m OPERATOR(trap.===) x.m WHERE a < 0;
		SELECT count(*) > 0 FROM shown WHERE 1 / (a - 7) < 2;
		SELECT count(*) > 0 FROM shown s WHERE trap.peek(s::text);
		EXPLAIN (ANALYZE, VERBOSE, COSTS OFF, TIMING OFF) SELECT 1 FROM shown WHERE trap.peek(m)}) =~ s/\n[^t0\n].*//sr, "t\nt\n0\nt\nt");
is(sql(q{SELECT count(*) > 0, count(*) FILTER (WHERE what ~ 'hidden [5-9]') FROM trap.seen}), 't|0', 'nothing is seen of the others');
sql('TRUNCATE trap.seen');

# late tables
refused('a late table that shows what he may not read', '42501',
	q{CREATE MATERIALIZED VIEW trap.x USING continuous WITH (late_table = 'l') AS
		SELECT window_end, count(*) FROM s, tumble(ts, '1 minute') GROUP BY window_end});
sql_as('evil', q{
	CREATE TABLE trap.l (a int, ts timestamptz, late_view regclass, window_end timestamptz, watermark timestamptz, arrived_at timestamptz);
	CREATE MATERIALIZED VIEW trap.e USING continuous WITH (late_table = 'l') AS
		SELECT window_end, count(*) AS n FROM s, tumble(ts, '1 minute') GROUP BY window_end});
weir_wait($node);
my $late = q{INSERT INTO s VALUES (3, 'hidden 3', '2020-01-01'); };
sql($late);
weir_wait($node);
sql('SELECT weir.checkpoint()');
is(sql(q{SELECT count(*) FROM trap.l}), sql(q{SELECT late FROM weir.views WHERE view = 'trap.e'::regclass}), 'a late table without it');
for my $change (
	[ 'a late table that gets the column later', 'ALTER TABLE trap.l ADD secret text', 'ALTER TABLE trap.l DROP secret',
		'permission denied for column "secret" of stream "s"' ],
	[ 'a late table that gets a trigger', 'CREATE TRIGGER t BEFORE INSERT ON trap.l FOR EACH ROW EXECUTE FUNCTION trap.fired()', 'DROP TRIGGER t ON trap.l',
		'late table "l" of continuous view "e" has triggers, or foreign keys, which are triggers' ],
	[ 'a late table that gets a deferred constraint', 'ALTER TABLE trap.l ADD UNIQUE (a, ts, arrived_at) DEFERRABLE INITIALLY DEFERRED',
		'ALTER TABLE trap.l DROP CONSTRAINT l_a_ts_arrived_at_key', 'late table "l" of continuous view "e" has triggers, or foreign keys, which are triggers' ],
	[ 'a late table that gets a rule', 'CREATE RULE r AS ON INSERT TO trap.l DO INSTEAD NOTHING', 'DROP RULE r ON trap.l',
		'late table "l" of continuous view "e" has rules' ],
	[ 'a late table that gets policies', 'ALTER TABLE trap.l ENABLE ROW LEVEL SECURITY', 'ALTER TABLE trap.l DISABLE ROW LEVEL SECURITY',
		'late table "l" of continuous view "e" has row security' ])
{
	my ($name, $do, $undo, $error) = @$change;

	is(sql_as('evil', $do), '', $do);
	sql($late);
	is_left($name, state_of('trap.e'), "failed: $error");
	sql($undo);
	sql(q{SELECT weir.resume('trap.e')});
	weir_wait($node);
	sql('SELECT weir.checkpoint()');
	is(sql(q{SELECT count(*) FROM trap.l}), sql(q{SELECT late FROM weir.views WHERE view = 'trap.e'::regclass}), 'mended, no row is missing');
}
sql(q{ALTER TABLE trap.l RENAME TO l_before; CREATE TABLE trap.l (LIKE trap.l_before); ALTER TABLE trap.l OWNER TO evil});
sql($late);
weir_wait($node);
sql('SELECT weir.checkpoint()');
is_left('another table under the name of a late table', sql(q{SELECT count(*) FROM trap.l}), '0');
is(sql(q{SELECT count(*) FROM trap.l_before}), sql(q{SELECT late FROM weir.views WHERE view = 'trap.e'::regclass}), 'rows go on into the first');
sql('DROP MATERIALIZED VIEW trap.e; DROP TABLE trap.l');
my $windows = q{AS SELECT window_end, count(*) FROM s, tumble(ts, '1 minute') GROUP BY window_end};
sql('CREATE TABLE trap.fits (LIKE trap.l_before); CREATE TABLE trap.parted (LIKE trap.l_before) PARTITION BY LIST (a)');
refused('the late table is not his', '42501', map { "CREATE MATERIALIZED VIEW trap.x USING continuous WITH (late_table = '$_') $windows" }
	'trap.fits', 'weir.x', 'pg_catalog.x', 'information_schema.x');
refused('the late table is none', '42P07', map { "CREATE MATERIALIZED VIEW trap.x USING continuous WITH (late_table = '$_') $windows" }
	'trap.mine', 'trap.parted', 'public.s', 'public.v', 'weir.error_log', 'pg_catalog.pg_class', 'weir.views');
refused('the late table is a text', '22023', map { "CREATE MATERIALIZED VIEW trap.x USING continuous WITH (late_table = '$_') $windows" }
	'x.y.z');
refused('the late table is a text', '42602', map { "CREATE MATERIALIZED VIEW trap.x USING continuous WITH (late_table = '$_') $windows" }
	'x; DROP TABLE s', '"x', 'x.', '');

# what stands behind a view is exchanged
sql_as('evil', q{
	CREATE TABLE trap.own (a int, ts timestamptz NOT NULL) USING stream WITH (event_time = ts, watermark_delay = '0');
	CREATE TABLE trap.other (a int, ts timestamptz NOT NULL) USING stream WITH (event_time = ts, watermark_delay = '0');
	CREATE VIEW trap.lent AS SELECT a, ts FROM trap.own;
	CREATE FUNCTION trap.f(int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS 'BEGIN RETURN $1; END';
	GRANT SELECT, TRIGGER ON trap.own, trap.other TO alice; GRANT SELECT ON trap.lent TO alice;
	INSERT INTO trap.own SELECT i, '2020-01-01' FROM generate_series(1, 5) i});
sql_as('alice', q{
	CREATE MATERIALIZED VIEW borrows USING continuous AS SELECT a, count(*) AS n, max(trap.f(a)) AS m FROM trap.lent GROUP BY a;
	SELECT weir.wait_for('borrows')});
my $borrowed = 'SELECT a, count(*), max(a) FROM trap.own GROUP BY a';
for my $change (
	[ 'a plain view that reads another stream', 'CREATE OR REPLACE VIEW trap.lent AS SELECT a, ts FROM trap.other', 'continuous view "borrows" now reads another stream' ],
	[ 'a plain view that reads a table', 'CREATE OR REPLACE VIEW trap.lent AS SELECT 1 AS a, now() AS ts FROM trap.seen', 'continuous view must read a stream' ],
	[ 'a plain view that reads another plain view', 'CREATE OR REPLACE VIEW trap.lent AS SELECT a, ts FROM barrier', 'continuous view "borrows" now reads another stream' ],
	[ 'a plain view that is volatile', 'CREATE OR REPLACE VIEW trap.lent AS SELECT a, ts FROM trap.own WHERE random() < 2', 'continuous view cannot use volatile function random()' ],
	[ 'a plain view that aggregates', 'CREATE OR REPLACE VIEW trap.lent AS SELECT a, max(ts) AS ts FROM trap.own GROUP BY a', 'continuous view cannot aggregate in a subquery' ],
	[ 'a function that is volatile', 'ALTER FUNCTION trap.f(int) VOLATILE', 'continuous view cannot use volatile function trap.f(integer)' ],
	[ 'a function that may not be called', 'REVOKE EXECUTE ON FUNCTION trap.f(int) FROM PUBLIC', 'permission denied for function f' ],
	[ 'a function in another language', q{CREATE OR REPLACE FUNCTION trap.f(int) RETURNS int LANGUAGE sql STABLE AS 'SELECT pg_backend_pid()'}, 'continuous view cannot use "pg_backend_pid()"' ],
	[ 'a stream that gets policies', 'ALTER TABLE trap.own ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY', 'continuous view cannot read a stream under row-level security' ],
	[ 'a right that is taken', 'REVOKE TRIGGER ON trap.own FROM alice', 'permission denied for stream "own"' ])
{
	my ($name, $do, $error) = @$change;

	is(sql_as('evil', $do), '', $do);
	sql(q{INSERT INTO trap.own VALUES (1, '2020-01-01'); INSERT INTO trap.other VALUES (9, '2020-01-01')});
	is_left($name, state_of('borrows'), "failed: $error");
	sql_as('evil', q{
		CREATE OR REPLACE VIEW trap.lent AS SELECT a, ts FROM trap.own;
		CREATE OR REPLACE FUNCTION trap.f(int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS 'BEGIN RETURN $1; END';
		GRANT EXECUTE ON FUNCTION trap.f(int) TO PUBLIC; ALTER TABLE trap.own DISABLE ROW LEVEL SECURITY, NO FORCE ROW LEVEL SECURITY;
		GRANT TRIGGER ON trap.own TO alice});
	is(sql_as('alice', q{SELECT weir.resume('borrows')}), '', 'mended');
	weir_wait($node);
	weir_same($node, 'borrows', $borrowed, "$name: nothing is lost");
}
sql_as('evil', q{ALTER FUNCTION trap.f(int) RENAME TO f_before; CREATE FUNCTION trap.f(int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT 7';
	ALTER VIEW trap.lent RENAME TO lent_before; CREATE VIEW trap.lent AS SELECT 1 AS a;
	ALTER TABLE trap.own RENAME TO own_before; CREATE TABLE trap.own (a int, ts timestamptz) USING stream;
	INSERT INTO trap.own VALUES (70, NULL); INSERT INTO trap.own_before VALUES (3, '2020-01-01')});
weir_wait($node);
is_left('others under the names of function, plain view and stream', sql('SELECT count(*) FROM borrows WHERE a = 70 OR m = 7'), '0');
weir_same($node, 'borrows', 'SELECT a, count(*), max(a) FROM trap.own_before GROUP BY a');
refused('drop what stands behind a view', '2BP01', 'DROP FUNCTION trap.f_before(int)', 'DROP VIEW trap.lent_before', 'DROP TABLE trap.own_before',
	'ALTER TABLE trap.own_before DROP COLUMN a');
sql('DROP MATERIALIZED VIEW borrows; DROP TABLE trap.own');

# what a function of a view does in the worker, one event each
sql_as('evil', q{
	CREATE TABLE trap.own (a int, ts timestamptz NOT NULL) USING stream WITH (event_time = ts, watermark_delay = '0');
	CREATE TABLE trap.cmds (a int PRIMARY KEY, cmd text, expected text, result text);
	CREATE TABLE trap.deferred (x int);
	CREATE CONSTRAINT TRIGGER t AFTER INSERT ON trap.deferred DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION trap.fired();
	CREATE TABLE trap.immediate (x int);
	CREATE CONSTRAINT TRIGGER t AFTER INSERT ON trap.immediate DEFERRABLE INITIALLY IMMEDIATE FOR EACH ROW EXECUTE FUNCTION trap.fired();
	CREATE FUNCTION trap.attempt(int) RETURNS void LANGUAGE plpgsql AS $$
	DECLARE c text := (SELECT cmd FROM trap.cmds WHERE a = $1); r text := 'OK';
	BEGIN
		BEGIN
			IF c IS NOT NULL THEN EXECUTE c; END IF;
		EXCEPTION WHEN OTHERS THEN r := SQLSTATE;
		END;
		UPDATE trap.cmds SET result = r || ' as ' || current_user WHERE a = $1;
	END $$;
	CREATE FUNCTION trap.try(int) RETURNS int LANGUAGE plpgsql STABLE AS 'BEGIN PERFORM trap.attempt($1); RETURN $1; END';
	CREATE PROCEDURE trap.ends() LANGUAGE plpgsql AS 'BEGIN COMMIT; END'});
my @commands = (
	[ '42501', 'SET ROLE admin', 'RESET ROLE', 'SET LOCAL ROLE alice', 'SET SESSION AUTHORIZATION DEFAULT', 'SET SESSION AUTHORIZATION alice',
		q{SELECT pg_catalog.set_config('role', 'none', false)}, q{SELECT pg_catalog.set_config('session_authorization', 'postgres', false)},
		'SET LOCAL session_replication_role = replica', q{SELECT pg_catalog.set_config('session_preload_libraries', 'x', false)},
		'ALTER ROLE evil SET role = postgres', 'ALTER ROLE evil SUPERUSER', 'GRANT pg_read_all_data TO evil',
		'CREATE TEMP TABLE t (x int)', 'CREATE TEMP VIEW t AS SELECT 1', 'CREATE TEMP SEQUENCE t', 'CREATE TABLE pg_temp.t AS SELECT 1',
		q{CREATE TYPE pg_temp.t AS ENUM ('x')}, 'CREATE DOMAIN pg_temp.t AS int',
		'DECLARE c CURSOR WITH HOLD FOR SELECT 1', 'PREPARE p AS SELECT 1', 'DEALLOCATE ALL', 'LISTEN x', 'UNLISTEN *',
		'INSERT INTO trap.deferred VALUES (1)', 'SET CONSTRAINTS ALL DEFERRED; INSERT INTO trap.immediate VALUES (1)',
		q{COPY trap.seen TO PROGRAM 'true'}, q{COPY trap.seen FROM PROGRAM 'true'}, q{COPY trap.seen TO '/tmp/x'}, q{SELECT pg_catalog.pg_read_file('PG_VERSION')},
		q{SELECT pg_catalog.lo_import('/etc/passwd')}, 'SELECT pg_catalog.pg_terminate_backend(pg_catalog.pg_backend_pid())',
		'SELECT pg_catalog.pg_cancel_backend(pg_catalog.pg_backend_pid())', 'SELECT pg_catalog.pg_reload_conf()', 'DROP EXTENSION pg_weir', 'CHECKPOINT', 'DISCARD ALL', 'DROP OWNED BY evil CASCADE',
		'SELECT weir.checkpoint()', q{SELECT weir.pause('public.v')}, 'DROP MATERIALIZED VIEW public.v', 'TRUNCATE public.s',
		'CREATE TRIGGER u BEFORE INSERT ON public.s FOR EACH ROW EXECUTE FUNCTION trap.fired()',
		'SELECT 1 FROM weir.view_state', q{UPDATE weir.view_wish SET wanted = 's'}, 'SELECT secret FROM public.s' ],
	[ '55000', q{SELECT weir.wait_for('trap.tries')}, 'SELECT weir.wait_for()' ],
	[ '55006', 'TRUNCATE trap.own', 'DROP TABLE trap.own CASCADE', 'ALTER TABLE trap.own ADD z int' ],
	[ '25001', 'VACUUM trap.own', 'ALTER SYSTEM SET fsync = off', 'CREATE DATABASE x' ],
	[ '2D000', 'CALL trap.ends()' ], [ '0A000', 'COMMIT', 'ROLLBACK', q{PREPARE TRANSACTION 'x'}, 'SAVEPOINT x' ],
	[ '54000', q{SELECT repeat('x', 1073741823)} ], [ 'P0001', 'INSERT INTO trap.immediate VALUES (1)' ],
	[ 'OK', 'SELECT trap.try(0)', 'SELECT pg_catalog.pg_advisory_lock(4711)', 'SELECT pg_catalog.pg_advisory_xact_lock_shared(4712)', 'SELECT pg_catalog.lo_create(0)',
		q{SELECT pg_catalog.lo_open(pg_catalog.lo_create(0), 131072)}, q{NOTIFY x, 'y'}, q{SET search_path = trap}, q{SET LOCAL TimeZone = 'Asia/Tokyo'},
		q{SELECT pg_catalog.set_config('my.own', 'x', false)}, 'DECLARE left_open CURSOR FOR SELECT 1', q{INSERT INTO trap.own VALUES (10000, '2020-01-01')},
		'SELECT * FROM trap.tries', q{SELECT * FROM weir.explain('trap.tries')}, 'SELECT * FROM weir.views', 'SELECT * FROM weir.streams', 'ANALYZE trap.own',
		# his own, and it fires as who makes it fire: not as the owner of a stream or of a view
		'CREATE TRIGGER u BEFORE TRUNCATE ON trap.own EXECUTE FUNCTION trap.fired()', 'CREATE TRIGGER u BEFORE TRUNCATE ON trap.cmds EXECUTE FUNCTION trap.fired()' ]);
my $n = 0;
my $insert = '';
for my $group (@commands)
{
	my ($code, @cmds) = @$group;

	$insert .= sprintf "INSERT INTO trap.cmds VALUES (%d, \$c\$%s\$c\$, '%s as evil');\n", ++$n, $_, $code for @cmds;
}
# the one that calls itself
$insert .= q{UPDATE trap.cmds SET cmd = 'SELECT trap.try(' || a || ')' WHERE cmd = 'SELECT trap.try(0)';};
is(sql_as('evil', $insert), '', "$n commands");
sql_as('evil', q{
	CREATE MATERIALIZED VIEW trap.tries USING continuous AS SELECT a, count(trap.try(a)) AS n FROM trap.own GROUP BY a;
	CREATE MATERIALIZED VIEW trap.beside USING continuous AS SELECT a, count(*) AS n FROM trap.own GROUP BY a});
weir_wait($node);
sql("INSERT INTO trap.own SELECT i, '2020-01-01' FROM generate_series(1, $n) i");
weir_wait($node);
is_left("$n commands in the worker",
	sql(q{SELECT string_agg(format('%s: %s', cmd, result), E'\n' ORDER BY a) FROM trap.cmds WHERE result IS DISTINCT FROM expected}), '');
weir_same($node, $_, 'SELECT a, count(*) FROM trap.own GROUP BY a', "$_ is exact") for 'trap.tries', 'trap.beside';
is(sql(q{SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'}), '0', 'no lock is left');
is(sql(q{SELECT count(*) FROM pg_class WHERE pg_is_other_temp_schema(relnamespace)}), '0', 'no temporary table is left');
is(sql("SELECT count(*) FROM weir.workers WHERE pid IN (SELECT worker_pid FROM weir.views)"), sql('SELECT count(DISTINCT worker_pid) FROM weir.views'),
	'the workers live');
is(sql(q{SELECT state FROM weir.views WHERE view = 'trap.tries'::regclass}), 'running', 'the view runs');

# the same code in the session of a reader
sql_as('evil', q{
	CREATE FUNCTION trap.final(bigint) RETURNS bigint LANGUAGE plpgsql STABLE AS $$
	BEGIN
		PERFORM trap.attempt(i) FROM generate_series(1001, 1006) i;
		RETURN $1;
	END $$;
	INSERT INTO trap.cmds VALUES
		(1001, 'EXECUTE of_reader', '42501 as evil'), (1002, 'SELECT * FROM pg_temp.of_reader', '42501 as evil'),
		(1003, 'DEALLOCATE of_reader', '42501 as evil'), (1004, 'DROP TABLE pg_temp.of_reader', '42501 as evil'),
		(1005, 'RESET ROLE', '42501 as evil'), (1006, 'SET search_path = trap', 'OK as evil');
	CREATE MATERIALIZED VIEW trap.lure USING continuous AS SELECT trap.final(count(*)) AS n FROM trap.own;
	CREATE MATERIALIZED VIEW trap.breaks USING continuous AS SELECT 1 / (count(*) - count(*)) AS n FROM trap.own;
	GRANT SELECT ON trap.lure, trap.breaks TO reader});
weir_wait($node);
is_left('statements and tables of who reads a view',
	sql_as('reader', q{PREPARE of_reader AS SELECT a FROM public.v; CREATE TEMP TABLE of_reader (x int);
		SELECT n > 0 FROM trap.lure; EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF, SUMMARY OFF) EXECUTE of_reader;
		SELECT current_user, current_setting('search_path')}) =~ s/\n[^tr].*\n/\n/sr, qq{t\nreader|"\$user", public});
is(sql(q{SELECT string_agg(format('%s: %s', cmd, result), E'\n' ORDER BY a) FROM trap.cmds WHERE a > 1000 AND result IS DISTINCT FROM expected}), '', 'what became of it');
is_left('an error in a view does not leave its owner behind',
	sql_as('reader', q{BEGIN; SAVEPOINT x; SELECT * FROM trap.breaks; ROLLBACK TO x; SELECT current_user, current_setting('search_path'); RESET ROLE;
		SELECT count(*) > 0 FROM v; COMMIT; CREATE TEMP TABLE t (x int)}), qq{reader|"\$user", public\nt\nERROR:  22012});
is_left('the same in a block with an exception handler',
	sql_as('reader', q{DO $$ BEGIN PERFORM * FROM trap.breaks; EXCEPTION WHEN division_by_zero THEN
		IF current_user <> 'reader' OR current_setting('search_path') <> '"$user", public' THEN RAISE 'left behind'; END IF; END $$}), '');
sql('DROP MATERIALIZED VIEW trap.lure, trap.breaks');

# and when a superuser tends the view
sql_as('evil', q{
	CREATE TABLE trap.users (who name); GRANT ALL ON trap.users TO PUBLIC;
	CREATE FUNCTION trap.sign() RETURNS void LANGUAGE plpgsql AS 'BEGIN INSERT INTO trap.users VALUES (current_user); END';
	CREATE FUNCTION trap.signed(bigint) RETURNS bigint LANGUAGE plpgsql IMMUTABLE AS 'BEGIN PERFORM trap.sign(); RETURN $1; END';
	CREATE MATERIALIZED VIEW trap.tended USING continuous AS
		SELECT trap.signed(a) AS a, trap.signed(count(*)) AS n, max(trap.signed(a)) AS m FROM trap.own GROUP BY trap.signed(a) HAVING trap.signed(count(*)) > 0;
	CREATE INDEX tended_n ON trap.tended (trap.signed(n));
	CREATE STATISTICS trap.st ON trap.signed(n), a FROM trap.tended});
weir_wait($node);
is_left('a superuser who tends it',
	sql_as(undef, q{DO 'BEGIN PERFORM weir.checkpoint(); END'; SELECT count(*) > 0 FROM trap.tended; COPY (SELECT count(*) > 0 FROM trap.tended WHERE n = 1) TO STDOUT;
		CREATE TABLE trap.copy AS TABLE trap.tended; DROP TABLE trap.copy; ANALYZE trap.tended; REINDEX TABLE trap.tended;
		CLUSTER trap.tended USING tended_n; VACUUM FULL trap.tended; SELECT count(*) > 0 FROM weir.explain('trap.tended');
		REFRESH MATERIALIZED VIEW trap.tended; SELECT weir.wait_for('trap.tended'); SELECT count(*) > 0 FROM weir.views}), "t\nt\nt\nt\nt");
is(sql('SELECT string_agg(DISTINCT who, \' \') FROM trap.users'), 'evil', 'lends nothing to its functions');
sql('DROP MATERIALIZED VIEW trap.tended');

# in others' way
my $lock = $node->background_psql('postgres', on_error_stop => 1, extra_params => [ '-U', 'evil' ]);
sql_as('evil', 'CREATE MATERIALIZED VIEW trap.locked USING continuous AS SELECT a, count(*) AS n FROM s GROUP BY a');
weir_wait($node);
$lock->query_safe('BEGIN; ALTER MATERIALIZED VIEW trap.locked RENAME a TO b');
feed(30);
is_left('a lock on his view of the same stream', sql(q{SELECT weir.wait_for('v') AND weir.wait_for('w')}), 't');
$lock->query_safe('COMMIT');
$lock->quit;
all_is_well('after it');
weir_same($node, 'trap.locked', 'SELECT a, count(*) FROM s GROUP BY a', 'and his own');
sql('DROP MATERIALIZED VIEW trap.locked');

sql_as('evil', q{
	CREATE FUNCTION trap.sleeps(int) RETURNS int LANGUAGE plpgsql STABLE AS 'BEGIN PERFORM pg_sleep(86400); RETURN $1; END';
	CREATE MATERIALIZED VIEW trap.endless USING continuous AS SELECT count(trap.sleeps(a)) AS n FROM s WHERE a = 8});
$node->poll_query_until('postgres', q{SELECT count(*) = 1 FROM pg_stat_activity WHERE wait_event = 'PgSleep'});
my $sleeper = sql(q{SELECT pid FROM pg_stat_activity WHERE wait_event = 'PgSleep'});
sql(qq{SELECT weir.pause('trap.endless'); SELECT pg_cancel_backend($sleeper)});
feed(31);
is_left('a function without end, paused and cancelled', sql(q{SELECT weir.wait_for('v') AND weir.wait_for('w')}), 't');
is(sql(q{SELECT state FROM weir.views WHERE view = 'trap.endless'::regclass}), 'paused', 'is paused');
sql('DROP MATERIALIZED VIEW trap.endless');

refused('give a view to somebody else', '42501', 'ALTER MATERIALIZED VIEW trap.tries OWNER TO alice', 'ALTER TABLE trap.own OWNER TO alice',
	'REASSIGN OWNED BY evil TO alice', 'REASSIGN OWNED BY alice TO evil', 'ALTER MATERIALIZED VIEW v OWNER TO evil');
sql(q{GRANT SELECT ON v TO evil});
refused('operate what he may read', '42501', q{SELECT weir.pause('v')}, q{SELECT weir.resume('v')}, 'REFRESH MATERIALIZED VIEW v', 'DROP MATERIALIZED VIEW v',
	'ALTER MATERIALIZED VIEW v SET (emit = final)', q{SELECT weir.advance_watermark('s', 'infinity')});
all_is_well('owners of views');


# ---- row security ----
$who = 'limited';
sql_as('admin', q{
	CREATE TABLE r (id int, mine bool, ts timestamptz NOT NULL) USING stream WITH (event_time = ts, watermark_delay = '0');
	CREATE POLICY p ON r FOR SELECT USING (mine);
	ALTER TABLE r ENABLE ROW LEVEL SECURITY;
	GRANT SELECT, TRIGGER, INSERT ON r TO limited;
	INSERT INTO r SELECT i, i % 2 = 0, '2020-01-01'::timestamptz + i * interval '1 s' FROM generate_series(1, 10) i;
	ANALYZE r});
sql(q{CREATE FUNCTION trap.peek_int(int) RETURNS bool LANGUAGE plpgsql STABLE COST 0.0001 AS 'BEGIN PERFORM trap.note(''id '' || $1); RETURN true; END'});
is_left('rows that policies hide, by windows over other rows',
	sql_as($who, q{
		SELECT string_agg(format('%s-%s:%s', window_start, window_end, n), ' ' ORDER BY window_start) FROM
			(SELECT window_start, window_end, count(*) AS n FROM r, count_window(2) WHERE trap.peek_int(id) GROUP BY window_start, window_end) x;
		SELECT count(*), sum(n) FROM (SELECT window_start, count(*) AS n FROM r, session(ts, '1 second') WHERE trap.peek_int(id) GROUP BY window_start, window_end) x;
		SELECT count(*) FROM r, tumble(ts, '1 s') WHERE trap.peek_int(id)}), "0-2:2 2-4:2 4-:1\n5|5\n5");
is(sql(q{SELECT count(*) > 0, count(*) FILTER (WHERE what ~ 'id (1|3|5|7|9)$') FROM trap.seen}), 't|0', 'functions see none of them');
is_left('and by statistics', sql_as($who, q{SELECT count(*) FROM pg_stats WHERE tablename = 'r';
	SELECT oldest_event IS NULL AND newest_event IS NULL FROM weir.streams WHERE stream = 'r'::regclass}), "0\nt");
is(sql_as('admin', q{SELECT oldest_event IS NOT NULL FROM weir.streams WHERE stream = 'r'::regclass}), 't', 'which the owner sees');
refused('and by a view', '0A000', 'CREATE MATERIALIZED VIEW trap.x USING continuous AS SELECT count(*) FROM r',
	'SET row_security = off; CREATE MATERIALIZED VIEW trap.x USING continuous AS SELECT count(*) FROM r');
sql_as($who, 'CREATE VIEW trap.si WITH (security_invoker) AS SELECT * FROM r; CREATE VIEW trap.sd AS SELECT * FROM r; GRANT SELECT ON trap.si, trap.sd TO admin');
refused('and by a view on a plain view', '0A000', map { "CREATE MATERIALIZED VIEW trap.x USING continuous AS SELECT count(*) FROM trap.$_" } 'si', 'sd');
$who = 'admin';
refused('the owner of the stream, by a plain view of the limited', '0A000', 'CREATE MATERIALIZED VIEW trap.x USING continuous AS SELECT count(*) FROM trap.sd');


# ---- who may only create ----
$who = 'maker';
sql('CREATE SCHEMA first AUTHORIZATION maker; GRANT USAGE ON SCHEMA first TO PUBLIC');
is(sql_as($who, q{
	CREATE FUNCTION first.never(int, int) RETURNS bool LANGUAGE plpgsql IMMUTABLE AS 'BEGIN RAISE ''trapped %'', current_user; END';
	CREATE FUNCTION first.never(text, text) RETURNS bool LANGUAGE plpgsql IMMUTABLE AS 'BEGIN RAISE ''trapped %'', current_user; END';
	CREATE FUNCTION first.minus(bigint, int) RETURNS bigint LANGUAGE plpgsql IMMUTABLE AS 'BEGIN RAISE ''trapped %'', current_user; END';
	CREATE OPERATOR first.= (leftarg = int, rightarg = int, function = first.never, commutator = OPERATOR(first.=), hashes, merges);
	CREATE OPERATOR first.< (leftarg = int, rightarg = int, function = first.never);
	CREATE OPERATOR first.= (leftarg = text, rightarg = text, function = first.never, hashes, merges);
	CREATE OPERATOR first.< (leftarg = text, rightarg = text, function = first.never);
	CREATE OPERATOR first.- (leftarg = bigint, rightarg = int, function = first.minus);
	CREATE FUNCTION first.count() RETURNS bigint LANGUAGE sql IMMUTABLE AS 'SELECT -1::bigint';
	CREATE FUNCTION first.max(text) RETURNS text LANGUAGE sql IMMUTABLE AS 'SELECT ''trapped''';
	CREATE FUNCTION first.generate_series(int, int) RETURNS SETOF int LANGUAGE sql IMMUTABLE AS 'SELECT 1';
	CREATE FUNCTION first.now() RETURNS timestamptz LANGUAGE sql IMMUTABLE AS 'SELECT ''2000-01-01''::timestamptz';
	CREATE AGGREGATE first.sum(int) (SFUNC = int4mul, STYPE = int, INITCOND = '7');
	CREATE DOMAIN first.int4 AS pg_catalog.int4 CHECK (VALUE > 1000); CREATE DOMAIN first.timestamptz AS pg_catalog.timestamptz CHECK (VALUE IS NULL);
	CREATE TYPE first.regclass AS ENUM ('x'); CREATE TYPE first.text AS (x int);
	CREATE COLLATION first."default" (provider = icu, locale = 'und-u-ks-level1', deterministic = false);
	CREATE CAST (first.text AS pg_catalog.text) WITH INOUT AS IMPLICIT;
	CREATE TABLE first.pg_class (oid oid, relname name); CREATE TABLE first.s (a int); CREATE TABLE first.view_wish (view oid);
	CREATE TEXT SEARCH CONFIGURATION first.english (COPY = pg_catalog.simple);
	}), '', 'traps are set');
sql('ALTER DATABASE postgres SET search_path = first, pg_catalog, public');
$node->restart;
{
	local $ENV{PGOPTIONS} = '-c search_path=public';

	feed(40);
	all_is_well('restarted into traps on every name');
	sql('REFRESH MATERIALIZED VIEW v; REFRESH MATERIALIZED VIEW w; SELECT weir.checkpoint()');
	all_is_well('rebuilt among traps');
}
is_left('traps in the path of a reader',
	sql_as('reader', q{SET search_path = first, pg_catalog; SELECT pg_catalog.sum(n) OPERATOR(pg_catalog.>) 0 FROM public.v; SELECT pg_catalog.count(*) OPERATOR(pg_catalog.>) 0 FROM public.w WHERE a OPERATOR(pg_catalog.=) 3;
		SELECT weir.wait_for('public.v'); SELECT pg_catalog.count(*) OPERATOR(pg_catalog.>) 0 FROM weir.explain('public.w'); SELECT pg_catalog.count(*) FROM weir.streams;
		SELECT weir.is_final('public.w', '2020-01-01'); TABLE weir.errors}), "t\nt\nt\nt\n0\nt");
sql('ALTER DATABASE postgres RESET search_path');
refused('operator classes, languages, types in C', '42501',
	'CREATE OPERATOR CLASS first.x FOR TYPE int USING btree AS OPERATOR 1 first.<', 'CREATE OPERATOR FAMILY first.x USING hash',
	'CREATE LANGUAGE x HANDLER plpgsql_call_handler', 'CREATE TYPE first.base (INPUT = textin, OUTPUT = textout)', 'CREATE CAST (int AS text) WITH INOUT AS IMPLICIT',
	'CREATE EVENT TRIGGER x ON ddl_command_end EXECUTE FUNCTION trap.fired()');
refused('what is not theirs to create in', '42501', 'CREATE TABLE weir.x (a int) USING stream', 'CREATE FUNCTION weir.tumble_start(int) RETURNS int LANGUAGE sql AS \'SELECT 1\'',
	'CREATE MATERIALIZED VIEW weir.x USING continuous AS SELECT count(*) FROM first.s', 'CREATE OPERATOR weir.= (leftarg = int, rightarg = int, function = first.never)',
	'CREATE TABLE public.x (a int) USING stream');
is_left('more views than there is room for',
	sql_as($who, q{CREATE TABLE first.many (a int) USING stream;
	DO $$ BEGIN FOR i IN 1 .. 530 LOOP EXECUTE format('CREATE MATERIALIZED VIEW first.m%s USING continuous AS SELECT count(*) AS n FROM first.many', i); END LOOP; END $$}), '');
sql('INSERT INTO first.many VALUES (1)');
feed(41);
is(sql(q{SELECT weir.wait_for('v') AND weir.wait_for('w')}), 't', 'views of others go on');
weir_same($node, $_, $views{$_}, "$_ equals its query") for sort keys %views;
$node->poll_query_until('postgres', q{SELECT count(*) FILTER (WHERE state = 'running') > 500 FROM weir.views});
is(sql(q{SELECT count(*) FILTER (WHERE state = 'running') <= 512, count(*) > 530 FROM weir.views}), 't|t', 'the others wait');
sql('DROP TABLE first.many CASCADE');
all_is_well('when they have gone');


# ---- who owns the database ----
$who = 'dbo';
refused('take over the extension', '42501', 'DROP EXTENSION pg_weir CASCADE', 'DROP SCHEMA weir CASCADE', 'ALTER SCHEMA weir RENAME TO x', 'DROP ACCESS METHOD stream CASCADE',
	'ALTER EXTENSION pg_weir UPDATE', 'ALTER EXTENSION pg_weir DROP FUNCTION weir.arrival()', 'CREATE TABLE weir.x ()', 'SELECT * FROM weir.view_state',
	'GRANT SELECT ON weir.view_state TO dbo', 'ALTER TABLE weir.view_wish OWNER TO dbo', 'ALTER FUNCTION weir.arrival() VOLATILE',
	'CREATE TRIGGER t BEFORE INSERT ON weir.view_wish EXECUTE FUNCTION suppress_redundant_updates_trigger()',
	'CREATE EVENT TRIGGER t ON ddl_command_start EXECUTE FUNCTION trap.fired()', 'CREATE PUBLICATION p FOR ALL TABLES',
	'CREATE OR REPLACE FUNCTION public.tumble(ts timestamptz, size interval, origin timestamptz, OUT window_start timestamptz, OUT window_end timestamptz) RETURNS SETOF record LANGUAGE sql AS \'SELECT $1, $1\'',
	q{ALTER DATABASE postgres SET session_preload_libraries = 'x'}, 'ALTER DATABASE postgres SET session_replication_role = replica',
	'ALTER ROLE alice IN DATABASE postgres SET search_path = first', 'SELECT * FROM s', 'SELECT * FROM v', q{SELECT weir.pause('v')}, 'REFRESH MATERIALIZED VIEW v', 'ALTER TABLE s SET (retention = 1)');
refused('drop what lies in his schema', '2BP01', 'DROP FUNCTION public.tumble(timestamptz, interval, timestamptz)', 'DROP SCHEMA public');
refused('settings of the server, on the database', '55P02', 'ALTER DATABASE postgres SET weir.max_workers = 1', q{ALTER DATABASE postgres SET weir.state_memory = '1MB'});
is(sql_as($who, q{CREATE FUNCTION public.tumble(timestamptz, interval, OUT window_start timestamptz, OUT window_end timestamptz)
	RETURNS SETOF record LANGUAGE sql IMMUTABLE AS 'SELECT $1, $1'}), '', 'a tumble() of his own');
$who = 'alice';
refused('dbo\'s tumble() is not taken for ours', '42725', q{CREATE MATERIALIZED VIEW x USING continuous AS SELECT window_start, count(*) FROM s, tumble(ts, '1 min') GROUP BY 1});
$who = 'dbo';
my @settings = (
	"search_path = 'trap'", "TimeZone = 'America/New_York'", "DateStyle = 'German'", "IntervalStyle = 'iso_8601'", 'extra_float_digits = -15', "bytea_output = 'escape'",
	'default_transaction_read_only = on', "default_transaction_isolation = 'serializable'", 'default_transaction_deferrable = on', "statement_timeout = '1ms'", "lock_timeout = '1ms'",
	"idle_in_transaction_session_timeout = '1ms'", "idle_session_timeout = '1ms'", 'row_security = off', 'transform_null_equals = on', 'array_nulls = off',
	'standard_conforming_strings = off', 'quote_all_identifiers = on', "default_table_access_method = 'stream'", "client_encoding = 'LATIN1'", "work_mem = '64kB'",
	"temp_buffers = '800kB'", 'from_collapse_limit = 1', 'join_collapse_limit = 1', 'geqo_threshold = 2', 'enable_seqscan = off', 'enable_material = off', 'enable_hashjoin = off',
	'enable_sort = off', 'enable_parallel_append = off', 'enable_partition_pruning = off', 'constraint_exclusion = on', 'cursor_tuple_fraction = 0', 'force_parallel_mode = on',
	'debug_parallel_query = on', 'parallel_setup_cost = 0', 'parallel_tuple_cost = 0', 'min_parallel_table_scan_size = 0', 'jit_above_cost = 0', "plan_cache_mode = 'force_generic_plan'",
	'synchronize_seqscans = off', 'check_function_bodies = off', "xmloption = 'document'", "default_toast_compression = 'lz4'", "timezone_abbreviations = 'India'",
	"weir.compression = 'lz4'", "restrict_nonsystem_relation_kind = 'view, foreign-table'", 'hash_mem_multiplier = 1000', "lc_numeric = 'C.UTF-8'");
# in one session, which they do not reach; what this server does not have is not set
my @unknown = sql_as($who, join("\n", map { "ALTER DATABASE postgres SET $_;" } @settings)) =~ /ERROR/g;
cmp_ok(@settings - @unknown, '>', 40, 'hostile settings of the database');
{
	# this session must get through them itself; of the rest it has what all sessions have
	local $ENV{PGOPTIONS} = '-c statement_timeout=0 -c lock_timeout=0 -c default_transaction_read_only=off -c idle_session_timeout=0'
	  . ' -c idle_in_transaction_session_timeout=0 -c row_security=on -c search_path=public -c restrict_nonsystem_relation_kind= -c TimeZone=UTC'
	  . ' -c DateStyle=ISO -c client_encoding=UTF8';

	$node->restart;
	feed(50);
	all_is_well('hostile settings of the database');
	sql('SELECT weir.checkpoint(); REFRESH MATERIALIZED VIEW v; REFRESH MATERIALIZED VIEW w');
	all_is_well('rebuilt under them');
	is_left('settings of the database',
		sql(q{SELECT count(DISTINCT state), min(state) FROM weir.views WHERE view IN ('v'::regclass, 'w'::regclass)}), '1|running');
	sql('ALTER DATABASE postgres RESET ALL');
}
sql_as($who, 'ALTER DATABASE postgres CONNECTION LIMIT 0; REVOKE ALL ON DATABASE postgres FROM PUBLIC');
$node->restart;
feed(60);
all_is_well('a database that nobody may connect to');
is_left('connection limits', sql(q{SELECT count(*) > 0 FROM weir.workers}), 't');
sql('ALTER DATABASE postgres CONNECTION LIMIT -1; GRANT CONNECT, TEMP ON DATABASE postgres TO PUBLIC');
# before the extension is there
sql('CREATE DATABASE before OWNER dbo');
for my $trap ([ 'CREATE SCHEMA weir', '42P06' ],
	[ q{CREATE FUNCTION public.tumble(timestamptz, interval, timestamptz, OUT timestamptz, OUT timestamptz) RETURNS SETOF record LANGUAGE sql AS 'SELECT now(), now()'}, '42723' ],
	[ q{CREATE FUNCTION public.count_window(bigint, bigint) RETURNS int LANGUAGE sql AS 'SELECT 1'}, '42723' ])
{
	my ($create, $code) = @$trap;
	my $drop = $create =~ s/CREATE (\w+ [^(]+(\((timestamptz, interval, timestamptz|bigint, bigint))?).*/"DROP $1" . ($2 ? ')' : '')/er;

	$node->psql('before', $create, extra_params => [ '-U', 'dbo' ]);
	$node->psql('before', "\\set VERBOSITY sqlstate\nCREATE EXTENSION pg_weir", stderr => \$err);
	is_left("before CREATE EXTENSION: $create", $err =~ s/^psql:\S+ //r, "ERROR:  $code");
	$node->psql('before', $drop, extra_params => [ '-U', 'dbo' ]);
}
is($node->psql('before', 'CREATE EXTENSION pg_weir'), 0, 'nothing is left of them');
sql('DROP DATABASE before');
# what lies in schema public, and fits what the install script calls better than what it means
sql('CREATE DATABASE before OWNER dbo');
$node->safe_psql('before', join('', q{
	CREATE FUNCTION public.trapped() RETURNS bool LANGUAGE plpgsql AS 'BEGIN RAISE LOG ''trapped %'', current_user; RETURN true; END';
	CREATE FUNCTION public.trap_start(timestamptz, interval, timestamptz) RETURNS timestamptz LANGUAGE sql AS 'SELECT public.trapped(); SELECT $1';
	CREATE FUNCTION public.trap_bool(int, int) RETURNS bool LANGUAGE sql AS 'SELECT public.trapped()';
	CREATE FUNCTION public.trap_bool(oid, oid) RETURNS bool LANGUAGE sql AS 'SELECT public.trapped()';
	CREATE FUNCTION public.trap_bool(bigint, bigint) RETURNS bool LANGUAGE sql AS 'SELECT public.trapped()';
	CREATE FUNCTION public.trap_bool(bigint, int) RETURNS bool LANGUAGE sql AS 'SELECT public.trapped()';
	CREATE FUNCTION public.trap_int(int, int) RETURNS int LANGUAGE sql AS 'SELECT public.trapped(); SELECT $1';
	CREATE FUNCTION public.pg_extension_config_dump(text, text) RETURNS void LANGUAGE sql AS 'SELECT public.trapped()';
	CREATE FUNCTION public.pg_extension_config_dump(regclass, text) RETURNS void LANGUAGE sql AS 'SELECT public.trapped()';
	CREATE FUNCTION public.generate_series(int, int) RETURNS SETOF int LANGUAGE sql AS 'SELECT public.trapped(); SELECT 1';
	CREATE OPERATOR public.- (leftarg = int, rightarg = int, function = public.trap_int);
	CREATE TABLE public.view_position (view oid, generation bigint, answering bool, failed_resumes bigint);
	CREATE VIEW public.error_log AS SELECT public.trapped() AS id; CREATE VIEW public.view_rows AS SELECT public.trapped() AS x;
	CREATE FUNCTION public.view_rows() RETURNS bool LANGUAGE sql AS 'SELECT public.trapped()';
	CREATE FUNCTION public.errors_visible(oid) RETURNS int LANGUAGE sql AS 'SELECT public.trapped(); SELECT 2';
	CREATE FUNCTION public.tumble_start(timestamptz, interval, timestamptz) RETURNS timestamptz LANGUAGE sql AS 'SELECT public.trapped(); SELECT $1';},
	(map { "CREATE OPERATOR public.$_->[0] (leftarg = $_->[1], rightarg = $_->[2], function = public.trap_bool);" }
		map { my $o = $_; map { [ $o, @$_ ] } [ 'int', 'int' ], [ 'oid', 'oid' ], [ 'bigint', 'bigint' ], [ 'bigint', 'int' ] } qw(= < >)),
	(map { "CREATE DOMAIN public.$_ AS pg_catalog.$_ CHECK (public.trapped());" }
		qw(oid int4 int8 text bool timestamptz timestamp interval bytea regclass date float8 jsonb tid pg_lsn name)),
	# casts of types of his own, to and from which anything could go
	q{CREATE TYPE public.anything AS (x pg_catalog.text);
	CREATE FUNCTION public.to_any(text) RETURNS public.anything LANGUAGE plpgsql AS 'BEGIN PERFORM public.trapped(); RETURN NULL; END';
	CREATE CAST (pg_catalog.text AS public.anything) WITH FUNCTION public.to_any(text) AS IMPLICIT;
	CREATE FUNCTION public.trap_bool(public.anything, public.anything) RETURNS bool LANGUAGE sql AS 'SELECT public.trapped()';
	CREATE OPERATOR public.= (leftarg = public.anything, rightarg = public.anything, function = public.trap_bool);}),
	extra_params => [ '-U', 'dbo' ]);
my $unsprung = -s $node->logfile;
is($node->psql('before', 'CREATE EXTENSION pg_weir'), 0, 'CREATE EXTENSION among them');
is_left('objects that lie in wait for CREATE EXTENSION', join(' ', slurp_file($node->logfile, $unsprung) =~ /(trapped \w+)/g), '');
is($node->safe_psql('before', q{
	SELECT count(*) FROM pg_depend d, pg_extension e
	WHERE extname = 'pg_weir' AND d.objid > e.oid AND (
		refobjid IN (SELECT oid FROM pg_proc WHERE proowner = 'dbo'::regrole) OR refobjid IN (SELECT oid FROM pg_type WHERE typowner = 'dbo'::regrole) OR
		refobjid IN (SELECT oid FROM pg_operator WHERE oprowner = 'dbo'::regrole) OR refobjid IN (SELECT oid FROM pg_class WHERE relowner = 'dbo'::regrole))}),
	'0', 'and nothing of the extension uses one of them');
is($node->safe_psql('before', q{
	CREATE TABLE s (k pg_catalog.int4, ts pg_catalog.timestamptz NOT NULL) USING stream WITH (event_time = ts);
	CREATE MATERIALIZED VIEW v USING continuous AS
		SELECT window_start, pg_catalog.count(*) AS n FROM s, tumble(ts, pg_catalog.make_interval(mins => 1)) GROUP BY window_start;
	INSERT INTO s VALUES (1, '2020-01-01 00:00:30Z');
	SELECT weir.wait_for(); SELECT n FROM v; SELECT pg_catalog.count(*) FROM weir.errors; SELECT state FROM weir.views}), "t\n1\n0\nrunning", 'it works');
is_left('and for its use', join(' ', slurp_file($node->logfile, $unsprung) =~ /(trapped \w+)/g), '');
sql('DROP DATABASE before');


sql('DROP FUNCTION public.tumble(timestamptz, interval)');


# ---- roles and names ----
$who = 'alice';
sql('ALTER ROLE alice RENAME TO "Ali\ce"');
feed(70);
all_is_well('an owner with another name');
$node->psql('postgres', "\\set VERBOSITY sqlstate\nDROP ROLE \"Ali\\ce\"", stderr => \$err);
like($err, qr/ERROR:  2BP01/, attack('drop the owner of a view'));
sql('ALTER ROLE "Ali\ce" RENAME TO alice');
$who = 'a role with an odd name';
for my $name ('x"; DROP TABLE s; --', q{it's}, 'back\\slash\\', "new\nline", "t\tab", "\xc3\xbc\xe2\x98\x83", '%s%n', '$1', 'a.b', ' ', 'select')
{
	# as identifiers; late_table is the text of one
	my ($q, $stream, $time, $table) = map { my $n = "$_$name"; $n =~ s/"/""/g; "\"$n\"" } '', 's ', 't ', 'l ';
	my $option = $table =~ s/'/''/gr;
	my $view = "'" . "$q.$q" =~ s/'/''/gr . "'";
	my $query = qq{SELECT window_end, $q, count(*) AS n, sum(1 / $q) AS x FROM $q.$stream, tumble($time, '1 minute') WHERE $q <> 0 GROUP BY window_end, $q};

	sql(qq{
		SET standard_conforming_strings = on;
		CREATE ROLE $q; CREATE SCHEMA $q; GRANT ALL ON SCHEMA $q TO $q; SET ROLE $q; SET search_path = $q, public;
		CREATE TABLE $stream ($q int, $time timestamptz NOT NULL) USING stream WITH (event_time = $time, watermark_delay = '0');
		CREATE MATERIALIZED VIEW $q USING continuous WITH (on_error = skip, late_table = '$option') AS } . $query =~ s/WHERE \Q$q\E <> 0//r);
	sql("INSERT INTO $q.$stream VALUES (1, '2020-01-01'), (0, '2020-01-02'), (1, '2020-01-03')");
	weir_wait($node);
	sql("INSERT INTO $q.$stream VALUES (1, '2020-01-01')");
	weir_wait($node);
	sql('SELECT weir.checkpoint()');
	is_left("named \"$name\"", sql(qq{
		SELECT (SELECT count(*) FROM ($query EXCEPT ALL TABLE $q.$q) x), (SELECT count(*) FROM $q.$table), (SELECT count(*) FROM $q.$q),
			(SELECT string_agg(event::text ~ '2020-01-02' || message, ' ') FROM weir.errors WHERE view = $view\::regclass),
			(SELECT count(*) > 5 FROM weir.explain($view))}), '1|1|2|truedivision by zero|t');
	sql("DROP OWNED BY $q CASCADE; DROP SCHEMA $q CASCADE; DROP ROLE $q");
}
all_is_well('odd names');

# ---- whose database is dumped and restored by a superuser ----
$who = 'evil';
sql('CREATE DATABASE dumped');
$node->safe_psql('dumped', 'CREATE EXTENSION pg_weir; CREATE SCHEMA trap AUTHORIZATION evil');
# pg_dump reads only, so the functions tell the log whose rights they have
$node->safe_psql('dumped', q{
	CREATE FUNCTION trap.sign() RETURNS void LANGUAGE plpgsql AS 'BEGIN RAISE LOG ''signed by % in %'', current_user, current_database(); END';
	CREATE FUNCTION trap.signed(bigint) RETURNS bigint LANGUAGE plpgsql IMMUTABLE AS 'BEGIN PERFORM trap.sign(); RETURN $1; END';
	CREATE FUNCTION trap.checked(bigint) RETURNS bool LANGUAGE plpgsql IMMUTABLE AS 'BEGIN PERFORM trap.sign(); RETURN true; END';
	CREATE FUNCTION trap.size() RETURNS interval LANGUAGE plpgsql IMMUTABLE AS 'BEGIN PERFORM trap.sign(); RETURN ''1 minute''; END';
	CREATE DOMAIN trap.number AS bigint CHECK (trap.checked(VALUE));
	CREATE TYPE trap.pair AS (n trap.number, t text);
	CREATE FUNCTION trap.step(trap.number, bigint) RETURNS trap.number LANGUAGE plpgsql IMMUTABLE AS 'BEGIN PERFORM trap.sign(); RETURN coalesce($1, 0) + $2; END';
	CREATE FUNCTION trap.final(trap.number) RETURNS trap.pair LANGUAGE plpgsql IMMUTABLE AS 'BEGIN PERFORM trap.sign(); RETURN ROW($1, ''x''::text); END';
	CREATE AGGREGATE trap.total(bigint) (SFUNC = trap.step, STYPE = trap.number, FINALFUNC = trap.final);
	CREATE TABLE trap.s (a bigint, ts timestamptz NOT NULL) USING stream WITH (event_time = ts, watermark_delay = '0');
	CREATE MATERIALIZED VIEW trap.v USING continuous AS
		SELECT window_start, trap.signed(a)::trap.number AS d, ROW(a, 'x')::trap.pair AS p, a + trap.signed(1) AS c,
			trap.signed(count(*)) AS n, trap.total(a) AS t, max(trap.signed(a)) AS m
		FROM trap.s, tumble(ts, trap.size()) WHERE trap.checked(7) GROUP BY window_start, 2, 3, 4 HAVING trap.checked(count(*));
	CREATE INDEX ON trap.v (trap.signed(n)) WHERE trap.checked(n);
	CREATE STATISTICS trap.st ON trap.signed(n), d FROM trap.v;
	INSERT INTO trap.s SELECT i % 3, '2020-01-01'::timestamptz + i * interval '10 s' FROM generate_series(1, 20) i},
	extra_params => [ '-U', 'evil' ]);
$node->safe_psql('dumped', 'SELECT weir.wait_for(); SELECT weir.checkpoint()');
$node->safe_psql('dumped', q{INSERT INTO trap.s SELECT i % 3, '2020-01-01 00:10'::timestamptz + i * interval '10 s' FROM generate_series(1, 20) i});
$node->safe_psql('dumped', 'SELECT weir.wait_for()');
my $dumps = PostgreSQL::Test::Utils::tempdir;
my $from = -s $node->logfile;

# Whose rights the functions have had in a database since the last call.
sub signatures
{
	my ($db) = @_;
	my %seen = map { $_ => 1 } slurp_file($node->logfile, $from) =~ /LOG:  signed by (\w+) in $db$/gm;

	$from = -s $node->logfile;
	return join ' ', sort keys %seen;
}

for my $format ([ '-Fc' ], [ '-Fd', '--inserts' ])
{
	my ($name) = map { s/\W//gr } @$format;

	my $db = lc $name;
	$node->command_checks_all([ 'pg_dump', @$format, '-f', "$dumps/$name", '-d', $node->connstr('dumped') ], 0, [qr/^$/], [qr/^$/],
		"pg_dump @$format as superuser");
	is_left("pg_dump @$format of a hostile view", signatures('dumped'), 'evil');
	sql("CREATE DATABASE $db");
	$node->command_ok([ 'pg_restore', '--exit-on-error', '-d', $node->connstr($db), "$dumps/$name" ], 'pg_restore as superuser');
	is($node->safe_psql($db, 'SELECT weir.wait_for(); SELECT weir.checkpoint()'), "t\n", 'the copy is complete');
	is_left("pg_restore of $name", signatures($db), 'evil');
	$node->safe_psql($_, q{INSERT INTO trap.s VALUES (1, '2020-01-01 01:00')}) for 'dumped', $db;
	my $rows = 'SELECT weir.wait_for(); SELECT count(*) > 10, md5(string_agg(v::text, chr(10) ORDER BY v::text)) FROM trap.v';
	is($node->safe_psql($db, $rows), $node->safe_psql('dumped', $rows), 'and as the source');
}
sql("DROP DATABASE $_") for 'dumped', 'fc', 'fd';

weir_log_is_clean($node);
cmp_ok($attacks, '>=', 40, 'attacks');
$node->stop;
done_testing();
