# pg_dump, pg_dumpall and pg_restore carry streams and views: options, frozen
# settings, rights; the views come back by the REFRESH at the end.

use strict;
use warnings;

use lib 'test/tap';
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use WeirTest;

my $node = weir_node('dump');
my $dir = PostgreSQL::Test::Utils::tempdir;

$node->safe_psql(
	'postgres', q{
	CREATE ROLE keeper;
	GRANT CREATE ON SCHEMA public TO keeper;
	CREATE TABLE bids (auction bigint, "Price" bigint, "time" timestamptz NOT NULL, note text)
		USING stream WITH (event_time = "time", watermark_delay = '5 s', fillfactor = 77);
	CREATE TABLE plain (a int);
	CREATE UNLOGGED TABLE noise (a int, ts timestamp) USING stream WITH (event_time = ts);
	CREATE TABLE parts (a int, ts timestamptz) PARTITION BY RANGE (a);
	CREATE TABLE part1 PARTITION OF parts FOR VALUES FROM (0) TO (100)
		USING stream WITH (event_time = ts, retention = '3 days');
	SET TimeZone = 'Asia/Kolkata';
	CREATE MATERIALIZED VIEW per_minute USING continuous
		WITH (allowed_lateness = '1 minute', retention = '7 days', fillfactor = 60) AS
		SELECT window_start, auction, count(*) AS n, sum("Price") AS s
		FROM bids, tumble("time", '1 minute') GROUP BY window_start, auction;
	CREATE MATERIALIZED VIEW per_day USING continuous AS
		SELECT date_trunc('day', "time") AS day, count(*) AS n FROM bids GROUP BY 1;
	RESET TimeZone;
	CREATE UNIQUE INDEX ON per_minute (auction, window_start);
	CREATE MATERIALIZED VIEW "Odd view" USING continuous AS
		SELECT note, count(*) AS n FROM bids GROUP BY note;
	CREATE MATERIALIZED VIEW stopped USING continuous AS
		SELECT count(*) AS n FROM bids WITH NO DATA;
	GRANT SELECT, TRIGGER ON bids TO keeper;
	ALTER MATERIALIZED VIEW "Odd view" OWNER TO keeper;
	INSERT INTO parts SELECT i, '2026-01-01 00:00Z' FROM generate_series(1, 10) i;
	INSERT INTO plain VALUES (1);
});

# several transactions: rows are late or not by their order in the log, and a
# restored log is one transaction, in which nothing is late
for my $round (0 .. 3)
{
	$node->safe_psql(
		'postgres', qq{
		INSERT INTO bids SELECT i % 7, i, '2026-01-01 00:00:00Z'::timestamptz
			+ ($round * 600 + i) * interval '1 second', 'n' || i % 3
		FROM generate_series(1, 600) i});
}
weir_wait($node, 'source has caught up');

my $rows = q{
	SELECT window_start, auction, n, s FROM per_minute ORDER BY 1, 2;
	SELECT * FROM per_day ORDER BY 1;
	SELECT * FROM "Odd view" ORDER BY 1;
	SELECT * FROM bids ORDER BY 1, 2, 3;
	SELECT * FROM parts ORDER BY 1, 2};
my $catalog = q{
	SELECT relname, relkind, amname, pg_get_userbyid(relowner), relispopulated, relpersistence,
		(SELECT string_agg(o, ',' ORDER BY o) FROM unnest(reloptions) o)
	FROM pg_class c LEFT JOIN pg_am a ON a.oid = relam
	WHERE relnamespace = 'public'::regnamespace ORDER BY 1, 2;
	SELECT view::regclass, stream::regclass, wanted FROM weir.view_wish ORDER BY view::regclass::text};
my $expected_rows = $node->safe_psql('postgres', $rows);
my $expected_catalog = $node->safe_psql('postgres', $catalog);

# A role and a database that would change the views if they were heeded.
$node->safe_psql('postgres', 'CREATE ROLE hostile SUPERUSER LOGIN');
$node->safe_psql('postgres', q{ALTER ROLE hostile SET TimeZone = 'America/New_York'});

sub check
{
	my ($db, $what) = @_;

	is($node->safe_psql($db, q{SELECT weir.wait_for(timeout => '120 s')}), 't',
		"$what: views come back");
	is($node->safe_psql($db, $catalog), $expected_catalog, "$what: catalogs");
	is($node->safe_psql($db, $rows), $expected_rows, "$what: rows");

	# and they live
	$node->safe_psql($db, q{
		INSERT INTO bids VALUES (1, 1, '2026-01-02 00:00:00Z', 'later')});
	is($node->safe_psql($db, q{SELECT weir.wait_for(timeout => '120 s')}), 't',
		"$what: views follow");
	is($node->safe_psql($db, q{SELECT n FROM "Odd view" WHERE note = 'later'}), '1',
		"$what: new event is counted");
	is($node->safe_psql($db, 'SELECT sum(n) FROM per_minute'), '2401', "$what: none lost");
}

# plain text
$node->safe_psql('postgres', 'CREATE DATABASE plain');
$node->command_ok([ 'pg_dump', '-f', "$dir/plain.sql", '-d', $node->connstr('postgres') ], 'pg_dump');
$node->command_ok(
	[ 'psql', '-X', '-q', '-v', 'ON_ERROR_STOP=1', '-f', "$dir/plain.sql",
		'-d', $node->connstr('plain') . ' user=hostile' ],
	'psql restores it');
check('plain', 'plain');

# a second dump is the same text, but for the new event and pg_dump's own keys
my $schema = sub {
	my ($db) = @_;
	my ($out) = run_command([ 'pg_dump', '-s', '-d', $node->connstr($db) ]);
	$out =~ s/^\\(un)?restrict .*$//mg;
	return $out;
};
is($schema->('plain'), $schema->('postgres'), 'the schema is dumped as it was');

# custom format, parallel, cleaning up what is there
$node->safe_psql('postgres', 'CREATE DATABASE custom');
$node->command_ok(
	[ 'pg_dump', '-Fc', '-f', "$dir/custom", '-d', $node->connstr('postgres') ],
	'pg_dump -Fc');
$node->command_ok(
	[ 'pg_restore', '-j2', '--exit-on-error', '-d', $node->connstr('custom'), "$dir/custom" ],
	'pg_restore -j2');
check('custom', 'custom');
$node->command_ok(
	[ 'pg_restore', '--clean', '--exit-on-error', '--single-transaction',
		'-d', $node->connstr('custom'), "$dir/custom" ],
	'pg_restore --clean over running views');
check('custom', 'clean');

# directory format, parallel dump; under load: 007_dump_load.pl
$node->safe_psql('postgres', 'CREATE DATABASE directory');
$node->command_ok(
	[ 'pg_dump', '-Fd', '-j2', '-f', "$dir/directory", '-d', $node->connstr('postgres') ],
	'pg_dump -j2');
$node->command_ok(
	[ 'pg_restore', '-j2', '--exit-on-error', '-d', $node->connstr('directory'), "$dir/directory" ],
	'pg_restore -j2 of a directory');
check('directory', 'directory');

is($node->safe_psql('postgres', $rows), $expected_rows, 'the source is as it was');
weir_log_is_clean($node);
$node->stop;
done_testing();
