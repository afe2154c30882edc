# Watermarks are a matter of the log: what was judged stays judged, whatever
# restarts, and replay comes to the same.
use strict;
use warnings;

use lib 'test/tap';

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use WeirTest;

my $node = weir_node('time');

# The end of a stream.
my $query = q{SELECT window_start, window_end, k, count(*) AS n
  FROM s, tumble(ts, '1 minute') GROUP BY window_start, window_end, k};
$node->safe_psql('postgres', qq{
	CREATE TABLE s (k int, ts timestamptz NOT NULL) USING stream
	  WITH (event_time = ts, watermark_delay = '5 seconds');
	CREATE MATERIALIZED VIEW v USING continuous AS $query;
	INSERT INTO s SELECT i % 3, timestamptz '2026-01-01Z' + i * interval '1 s'
	  FROM generate_series(1, 600) i;
	SELECT weir.advance_watermark('s', 'infinity');
});
my $insert = "INSERT INTO s VALUES (1, '2026-01-01Z')";
my $ended = sub {
	my ($when) = @_;
	my ($ret, $out, $err) = $node->psql('postgres', "\\set VERBOSITY verbose\n$insert");
	# first of all: nobody has looked at the log yet
	like($err, qr/ERROR:  55000: stream "s" has ended/, "$when: no more events");
	weir_wait($node, "$when: caught up");
	weir_same($node, 'v', $query, "$when: exact");
	is($node->safe_psql('postgres', q{SELECT weir.watermark('s'), weir.watermark('v'),
		  (SELECT bool_and(weir.is_final('v', window_end)) FROM v), (SELECT count(*) FROM s)}),
		'infinity|infinity|t|600', "$when: all is final");
};
$ended->('ended');
$node->stop('immediate');
$node->start;
$ended->('after a crash');
$node->safe_psql('postgres', 'SELECT weir.checkpoint()');
$node->restart;
$ended->('after a restart');
weir_kill9($node);
weir_start($node);
$node->safe_psql('postgres', 'REFRESH MATERIALIZED VIEW v');
$ended->('rebuilt');
is($node->safe_psql('postgres', 'SELECT count(*) FROM ONLY v'),
	$node->safe_psql('postgres', 'SELECT count(*) FROM v'), 'and in the heap');

# A dump has the events, not the end.
$node->safe_psql('postgres', 'CREATE DATABASE other');
$node->command_ok(
	[ 'pg_dump', '-Fc', '-f', $node->backup_dir . '/dump', $node->connstr('postgres') ],
	'dump of an ended stream');
$node->command_ok(
	[ 'pg_restore', '--exit-on-error', '-d', $node->connstr('other'), $node->backup_dir . '/dump' ],
	'restored');
$node->safe_psql('other', $insert);
is($node->safe_psql('other', q{SELECT count(*), weir.watermark('s') FROM s}),
	'601|2026-01-01 00:09:55+00', 'it takes events');
$node->safe_psql('other', q{SELECT weir.advance_watermark('s', 'infinity')});
is($node->safe_psql('other', q{SELECT weir.watermark('s')}), 'infinity', 'and ends again');
$node->safe_psql('postgres', 'DROP TABLE s CASCADE');

weir_log_is_clean($node);
$node->stop;
done_testing();
