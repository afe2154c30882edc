# A rebuild of the windows that the log still holds all of, killed on the way:
# the rows of the others stay, whenever it dies, and nothing is there twice.
use strict;
use warnings;

use lib 'test/tap';

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use WeirTest;

my $node = weir_node('refresh', conf => "restart_after_crash = on\nweir.checkpoint_interval = '1h'\n");

sub sql { return $node->safe_psql('postgres', $_[0]) }

sub trim
{
	sql("ALTER TABLE s SET (retention_size = '1')");
	sql('SELECT weir.checkpoint()') for 1, 2;
	sql('ALTER TABLE s RESET (retention_size)');
}

sql(q{
	CREATE TABLE s (k int, x int, ts timestamptz) USING stream
	  WITH (event_time = ts, watermark_delay = '10 seconds');
	CREATE FUNCTION at(m float) RETURNS timestamptz LANGUAGE sql IMMUTABLE
	  RETURN timestamptz '2026-01-01 00:00Z' + m * interval '1 minute';
	CREATE MATERIALIZED VIEW tum USING continuous WITH (late_table = late) AS
	  SELECT window_start, k, count(*) AS n, sum(x) AS x, string_agg(x::text, ',' ORDER BY x) AS xs
	  FROM s, tumble(ts, '1 minute') GROUP BY window_start, k;
	CREATE UNIQUE INDEX ON tum (k, window_start);
	CREATE MATERIALIZED VIEW hp USING continuous AS
	  SELECT window_end, k, count(*) AS n, sum(x) AS x
	  FROM s, hop(ts, '20 s', '2 minutes') GROUP BY window_end, k});

# ten minutes are gone, the last of them in part
sql("INSERT INTO s SELECT j % 7, j, at(j / 100.0) FROM generate_series($_) j") for '0, 949', '950, 970';
weir_wait($node);
trim();
is(sql('SELECT min(x) FROM s'), '950', 'nine and a half minutes are gone');
isnt($node->psql('postgres', 'REFRESH MATERIALIZED VIEW tum'), 0, 'the last window is not final');
sql('INSERT INTO s SELECT j % 7, j, at(j / 100.0) FROM generate_series(971, 2500) j');
weir_wait($node);
sql('SELECT weir.checkpoint()');
sql('CREATE TABLE kept_tum AS SELECT * FROM tum WHERE window_start < at(10)');
sql('CREATE TABLE kept_hp AS SELECT * FROM hp WHERE window_end <= at(11) + interval \'20 s\'');

# The oracle: what was there of old, and the batch query over the rest.
sub exact
{
	my ($what, $late) = @_;

	is(weir_patiently($node, "SELECT weir.wait_for(NULL, '120 s')"), 't', "$what: consumed");
	weir_same($node, 'tum', q{
		TABLE kept_tum UNION ALL
		SELECT window_start, k, count(*), sum(x), string_agg(x::text, ',' ORDER BY x)
		FROM s, tumble(ts, '1 minute') WHERE window_start >= at(10) GROUP BY window_start, k},
		"$what: tumble");
	weir_same($node, 'hp', q{
		TABLE kept_hp UNION ALL
		SELECT window_end, k, count(*), sum(x) FROM s, hop(ts, '20 s', '2 minutes')
		WHERE window_end > at(11) + interval '20 s' GROUP BY window_end, k},
		"$what: hop");
	sql('SELECT weir.checkpoint()');
	is(sql('SELECT count(*), count(DISTINCT x) FROM late'), "$late|$late", "$what: late events");
	is( sql(q{SELECT final_rows = (SELECT count(*) FROM tum WHERE weir.is_final('tum', window_start + interval '1 minute'))
		FROM weir.views WHERE view = 'tum'::regclass}), 't', "$what: final rows");
}

# one late for windows that stay, others for windows that are rebuilt
my $late = 0;
my $next = 2501;
sub events
{
	my $to = $next + 49;

	sql('INSERT INTO s VALUES (1, ' . (-++$late) . ', at(9.45))');
	sql("INSERT INTO s SELECT j % 7, j, at(j / 100.0) FROM generate_series($next, $to) j");
	$next = $to + 1;
}

sub refresh
{
	my ($ret, $out, $err) = $node->psql('postgres', 'REFRESH MATERIALIZED VIEW tum; REFRESH MATERIALIZED VIEW hp');
	return $err;
}

exact('before', 0);
like(refresh(), qr/keeps 70 final rows as they are.*keeps 238 final rows as they are/s, 'it says what stays');
events();
exact('a rebuild', $late);

# a rebuild that has not begun keeps what it needs from going
sql(q{BEGIN; REFRESH MATERIALIZED VIEW tum; REFRESH MATERIALIZED VIEW hp;
	SELECT weir.pause('tum'), weir.pause('hp'); COMMIT});
trim();
events();
sql(q{SELECT weir.resume('tum'), weir.resume('hp')});
exact('retention meanwhile', $late);

# a dump has them all; who restores it cannot rebuild what is not there
my $dump = PostgreSQL::Test::Utils::tempdir() . '/dump';
$node->command_ok([ 'pg_dump', '-Fc', '-f', $dump, '-d', $node->connstr('postgres') ], 'pg_dump');
sql('CREATE DATABASE copy');
$node->command_ok([ 'pg_restore', '--exit-on-error', '-d', $node->connstr('copy'), $dump ], 'pg_restore');
is($node->safe_psql('copy', $_), sql($_), "copy: $_") for 'SELECT * FROM tum ORDER BY 1, 2', 'SELECT * FROM hp ORDER BY 1, 2',
  'SELECT k, x, window_end FROM late ORDER BY x';
like(($node->psql('copy', 'REFRESH MATERIALIZED VIEW tum'))[2], qr/has counted events that stream "s" does not hold/, 'a copy');
sql('DROP DATABASE copy');

SKIP:
{
	skip 'no debug points in this build', 1 if $node->psql('postgres', 'SHOW weir.debug_points') != 0;
	foreach my $point (qw(publish checkpoint-start checkpoint-commit swap-locked swap-filled swap-commit swap-committed))
	{
		my $offset = -s $node->logfile;

		sql("ALTER SYSTEM SET weir.debug_points = '$point=kill'");
		sql('SELECT pg_reload_conf()');
		refresh();
		$node->wait_for_log(qr/was terminated by signal 9/, $offset);
		weir_patiently($node, 'ALTER SYSTEM RESET weir.debug_points');
		weir_patiently($node, 'SELECT pg_reload_conf()');
		is(weir_patiently($node, "SELECT weir.wait_for(NULL, '120 s')"), 't', "$point: rebuilt");
		weir_patiently($node, 'SELECT weir.checkpoint()');
		events();
		exact($point, $late);
	}
}

# a damaged log can still be let go of, though nobody knows what was in it
sql(q{
	CREATE EXTENSION pageinspect;
	CREATE TABLE d (k int, ts timestamptz) USING stream WITH (event_time = ts);
	CREATE MATERIALIZED VIEW dv USING continuous AS SELECT window_end, count(*) AS n FROM d, tumble(ts, '1 minute') GROUP BY window_end;
	INSERT INTO d VALUES (1, at(0)), (2, at(10))});
weir_wait($node);
sql('SELECT weir.checkpoint()');
my $at = sql(q{SELECT lp_off + t_hoff + 8 FROM heap_page_items(get_raw_page('d', 0)) WHERE lp = 1});
my $file = $node->data_dir . '/' . sql("SELECT pg_relation_filepath('d')");
$node->stop;
open(my $f, '+<:raw', $file) or die "$file: $!";
seek($f, $at, 0);
read($f, my $byte, 1);
seek($f, $at, 0);
print $f chr(ord($byte) ^ 1);
close($f);
$node->start;
like(($node->psql('postgres', 'SELECT count(*) FROM d'))[2], qr/stream "d"/, 'a damaged log');
sql('REFRESH MATERIALIZED VIEW dv WITH NO DATA');
sql('TRUNCATE d');
is(sql(q{SELECT max_time FROM weir.stream_trim WHERE stream = 'd'::regclass}), '9223372036854775807', 'it is truncated');
sql('INSERT INTO d VALUES (1, at(20)), (2, at(30))');
sql('REFRESH MATERIALIZED VIEW dv');
is(sql("SELECT weir.wait_for('dv', '120 s')"), 't', 'it begins anew');
is(sql('SELECT count(*), sum(n) FROM dv'), '2|2', 'the view has it');

weir_log_is_clean($node);
$node->stop;
done_testing();
