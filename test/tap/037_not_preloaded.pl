# Without the library in shared_preload_libraries: whatever needs it says so, and
# what to do; nothing is lost until it is put back.

use strict;
use warnings;

use lib 'test/tap';
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use WeirTest;

my $node = weir_node('preload');

# Each statement in a session of its own, which has not loaded the library yet.
sub refused
{
	my ($sql, $what, $error) = @_;
	my ($ret, $out, $err) = $node->psql('postgres', $sql, extra_params => [ '-v', 'VERBOSITY=verbose' ]);

	isnt($ret, 0, "$what fails");
	like($err,
		$error // qr/ERROR:  55000: pg_weir must be loaded when the server starts\nHINT:  Add pg_weir to shared_preload_libraries and restart the server\./,
		"$what says what to do");
}

sub preload
{
	my ($libraries) = @_;

	$node->append_conf('postgresql.conf', "shared_preload_libraries = '$libraries'");
	$node->restart;
}

$node->safe_psql(
	'postgres', q{
	CREATE TABLE bids (auction bigint, ts timestamptz NOT NULL)
		USING stream WITH (event_time = ts, watermark_delay = '10 s');
	CREATE TABLE other (a int) USING stream;
	CREATE MATERIALIZED VIEW per_minute USING continuous AS
		SELECT window_start, count(*) AS n, sum(auction) AS s FROM bids, tumble(ts, '1 minute')
		GROUP BY window_start;
	CREATE MATERIALIZED VIEW paused USING continuous AS SELECT count(*) AS n FROM bids;
	INSERT INTO bids SELECT i, '2026-01-01 00:00:00Z'::timestamptz + i * interval '1 s'
		FROM generate_series(1, 200) i;});
weir_wait($node);
my $rows = $node->safe_psql('postgres', 'SELECT * FROM per_minute ORDER BY 1');

# what this one has still to consume is in the log alone
$node->safe_psql('postgres', q{SELECT weir.pause('paused')});
$node->poll_query_until('postgres', q{SELECT state = 'paused' FROM weir.views WHERE view = 'paused'::regclass})
  or die 'not paused';
$node->safe_psql('postgres', q{INSERT INTO bids VALUES (1000, '2026-01-01 00:03:25Z')});
$node->safe_psql('postgres', 'CREATE DATABASE without');

preload('');

my ($ret, $out, $err) = $node->psql('without', 'CREATE EXTENSION pg_weir');
isnt($ret, 0, 'CREATE EXTENSION fails');
like($err, qr/must be loaded.*\nHINT:  Add pg_weir to shared_preload_libraries/s, 'CREATE EXTENSION says what to do');
($ret, $out, $err) = $node->psql('without', 'SET check_function_bodies = off; CREATE EXTENSION pg_weir');
isnt($ret, 0, 'and so it does in a restore');
is($node->safe_psql('without', q{SELECT count(*) FROM pg_namespace WHERE nspname = 'weir'}),
	'0', 'nothing stays behind');

refused(q{CREATE TABLE s (a int) USING stream}, 'CREATE TABLE');
refused(q{CREATE MATERIALIZED VIEW v USING continuous AS SELECT count(*) FROM bids}, 'CREATE MATERIALIZED VIEW');
refused(q{CREATE MATERIALIZED VIEW v USING continuous AS SELECT count(*) FROM bids WITH NO DATA},
	'CREATE MATERIALIZED VIEW WITH NO DATA');
refused(q{SELECT * FROM per_minute}, 'SELECT of a view');
refused(q{SELECT * FROM per_minute JOIN bids ON true}, 'a join with a view');
refused(q{COPY (SELECT * FROM per_minute) TO stdout}, 'COPY of a view');
refused(q{INSERT INTO bids VALUES (1, '2026-01-01 00:05:00Z')}, 'INSERT');
refused(qq{COPY bids FROM stdin;\n1\t2026-01-01 00:05:00Z\n\\.\n}, 'COPY FROM');
refused(q{REFRESH MATERIALIZED VIEW per_minute}, 'REFRESH');
refused(q{REFRESH MATERIALIZED VIEW per_minute WITH NO DATA}, 'REFRESH WITH NO DATA');
refused(q{TRUNCATE bids}, 'TRUNCATE');
refused(q{TRUNCATE other, bids}, 'TRUNCATE of two');
refused(q{ALTER TABLE other ALTER a TYPE text}, 'ALTER TABLE');
refused(q{SELECT weir.wait_for()}, 'wait_for');
refused(q{SELECT weir.pause('per_minute')}, 'pause');
refused(q{SELECT weir.checkpoint()}, 'checkpoint');
refused(q{SELECT * FROM weir.views}, 'weir.views');
refused(q{SELECT * FROM weir.streams}, 'weir.streams');
# core does not know the option and looks no further
refused(q{CREATE TABLE s (ts timestamptz) USING stream WITH (event_time = ts)}, 'an option',
	qr/22023: unrecognized parameter "event_time"/);
is( $node->safe_psql(
		'postgres', q{SELECT count(*), sum(auction), weir.watermark('bids') FROM bids}),
	'201|21100|2026-01-01 00:03:15+00', 'the events can be read');

preload('pg_weir');
weir_wait($node, 'preloaded again: caught up');
is( $node->safe_psql('postgres', q{SELECT count(*), sum(n), sum(s) FROM per_minute}),
	'4|201|21100', 'nothing is lost');
$node->safe_psql('postgres', q{SELECT weir.resume('paused')});
weir_wait($node);
is($node->safe_psql('postgres', 'TABLE paused'), '201', 'nor what had not been consumed');
weir_same($node, 'per_minute',
	q{SELECT window_start, count(*), sum(auction) FROM bids, tumble(ts, '1 minute') GROUP BY window_start});
weir_log_is_clean($node);
$node->stop;
done_testing();
