# A standby: what its views answer, what it refuses; promotion; the old primary
# comes back by pg_rewind.  Promotions under load: test/fault/promotion.pl.
use strict;
use warnings;

use lib 'test/tap';

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use WeirStandby;
use WeirTest;

my $primary = first_primary('standby_0');

sub rows_of
{
	my ($node) = @_;
	return join "\n--\n",
	  map { $node->safe_psql('postgres', "SELECT * FROM $_ ORDER BY 1, 2, 3") }
	  qw(per_key per_minute sessions);
}

# ---------------------------------------------------------------- reading

insert_ids($primary, 1 .. 300);
my $standby = make_standby($primary, 'standby_1', '');
exact($primary, 'primary');
$primary->safe_psql('postgres', 'SELECT weir.checkpoint()');
my $checkpointed = rows_of($primary);
insert_ids($primary, 301 .. 1200);
weir_wait($primary, 'more, and no checkpoint');
isnt(rows_of($primary), $checkpointed, 'primary goes on');
$primary->wait_for_catchup($standby);

is($standby->safe_psql('postgres', 'SELECT count(*) FROM s'), '2400',
	'standby: the stream has all events');
is(rows_of($standby), $checkpointed,
	'standby: views have what the last checkpoint had');
is($standby->safe_psql('postgres', 'SELECT n, x FROM total'), '600|0',
	'standby: the ungrouped one too');
is($standby->safe_psql('postgres', 'SELECT DISTINCT state, worker_pid IS NULL, lag_events IS NULL, error IS NULL FROM weir.views'),
	'standby|t|t|t', 'standby: weir.views says so');
is($standby->safe_psql('postgres', 'SELECT count(*) FROM weir.workers'), '0',
	'standby: no workers');
is($standby->safe_psql('postgres', "SELECT count(*) FROM pg_stat_activity WHERE backend_type LIKE 'pg_weir%'"),
	'0', 'standby: no process of ours');
is($standby->safe_psql('postgres', "SELECT log_bytes > 0, held_by IS NOT NULL FROM weir.streams"),
	't|t', 'standby: weir.streams');
like($standby->safe_psql('postgres', "SELECT string_agg(l, E'\\n') FROM weir.explain('per_minute') l"),
	qr/State: not in memory/, 'standby: weir.explain');
my $final = 'SELECT count(*) FILTER (WHERE weir.is_final(\'per_minute\', window_end)), count(*) FROM per_minute';
my ($nfinal, $nall) = split /\|/, $standby->safe_psql('postgres', $final);
ok($nfinal == $nall - 1, "standby: is_final ($nfinal of $nall)");

# the watermark goes with what is replayed
my $watermark = "SELECT weir.watermark('s')";
is($standby->safe_psql('postgres', $watermark),
	$primary->safe_psql('postgres', $watermark), 'standby: watermark');
insert_ids($primary, 1201 .. 1300);
$primary->wait_for_catchup($standby);
is($standby->safe_psql('postgres', $watermark),
	$primary->safe_psql('postgres', $watermark), 'standby: it moves');

# a snapshot of the standby keeps its rows, whatever the primary does
my $reader = $standby->background_psql('postgres');
my $sums = 'SELECT (SELECT sum(n) FROM per_key), (SELECT sum(n) FROM per_minute)';
$reader->query_safe('BEGIN ISOLATION LEVEL REPEATABLE READ');
is($reader->query_safe($sums), '600|600', 'standby: snapshot');
$primary->safe_psql('postgres',
	'SELECT weir.checkpoint(); VACUUM weir.view_state, weir.view_position, per_minute, per_key');
is($reader->query_safe($sums), '600|600', 'standby: snapshot holds');
$reader->query_safe('COMMIT');
$primary->wait_for_catchup($standby);
is($reader->query_safe($sums), '2600|2600', 'standby: then the next checkpoint');
$reader->quit;

# ---------------------------------------------------------------- refusals

my @refused = (
	[ "SELECT weir.wait_for('total')",              '55000' ],
	[ 'SELECT weir.wait_for()',                     '55000' ],
	[ 'SELECT weir.checkpoint()',                   '25006' ],
	[ "SELECT weir.pause('total')",                 '25006' ],
	[ "SELECT weir.resume('total')",                '25006' ],
	[ "SELECT weir.advance_watermark('s', now())",  '25006' ],
	[ "SELECT weir.advance_watermark('s', 'infinity')", '25006' ],
	[ 'REFRESH MATERIALIZED VIEW total',            '25006' ],
	[ 'REFRESH MATERIALIZED VIEW total WITH NO DATA', '25006' ],
	[ 'ALTER MATERIALIZED VIEW per_minute SET (emit = final)', '25006' ],
	[ 'DROP MATERIALIZED VIEW total',               '25006' ],
	[ 'TRUNCATE s',                                 '25006' ],
	[ 'VACUUM s',                                   '25006' ],
	[ "INSERT INTO s VALUES (1, 1, 1, now())",      '25006' ]);
for my $r (@refused)
{
	my ($ret, $out, $err) =
	  $standby->psql('postgres', "\\set VERBOSITY verbose\n$r->[0]", timeout => 60);
	like($err, qr/ERROR:  $r->[1]:/, "standby refuses $r->[0]");
	like($err, qr/HINT:/, 'with a hint') if $r->[1] eq '55000';
}

# --------------------------------------------- promotion without a checkpoint

# What the refused statements asked for must not be taken for truth later: what
# is not consumed yet is waited for.
my $debug = $primary->safe_psql('postgres',
	"SELECT count(*) FROM pg_settings WHERE name = 'weir.debug_points'");
my $holder;
if ($debug)
{
	$standby->append_conf('postgresql.conf', "weir.debug_points = 'batch-start=wait'\n");
	$standby->reload;
	$holder = $standby->background_psql('postgres');
	$holder->query_safe("SELECT pg_advisory_lock(1465207378, hashtext('batch-start'))");
}
insert_ids($primary, 1301 .. 1400);
$primary->safe_psql('postgres', 'BEGIN; INSERT INTO s VALUES '
	  . values_of($_, $_) . "; PREPARE TRANSACTION 'p$_'") for 1401, 1402, 1403;
$primary->safe_psql('postgres', "COMMIT PREPARED 'p1401'");
$primary->wait_for_catchup($standby);
my $w = $primary->safe_psql('postgres', $watermark);
weir_kill9($primary);
$standby->promote;
is( $standby->safe_psql('postgres',
		"SELECT max(position) < pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0') FROM weir.view_position"),
	't', 'promoted: no position is ahead of the WAL');
is($standby->safe_psql('postgres', $watermark), $w, 'promoted: watermark');
if ($debug)
{
	is($standby->safe_psql('postgres', "SELECT weir.wait_for('total', '1 s')"),
		'f', 'promoted: what is not consumed is waited for');
	$holder->query_safe('SELECT pg_advisory_unlock_all()');
	$holder->quit;
}
exact($standby, 'promoted');
is($standby->safe_psql('postgres', 'SELECT n FROM total'), '2802',
	'promoted: all but what is prepared');
$standby->safe_psql('postgres', "COMMIT PREPARED 'p1402'");
$standby->safe_psql('postgres', "ROLLBACK PREPARED 'p1403'");
exact($standby, 'promoted, prepared ones ended');
is($standby->safe_psql('postgres', 'SELECT n FROM total'), '2804',
	'promoted: what was prepared counts when it is committed');
insert_ids($standby, 1500);
exact($standby, 'promoted, and on');

# ------------------------------------------------------------- pg_rewind

# The old primary had some more that nobody got; it comes back without it.
weir_start($primary);
insert_ids($primary, 900_001 .. 900_100);
$primary->safe_psql('postgres', 'SELECT weir.checkpoint()');
is($primary->safe_psql('postgres', 'SELECT count(*) FROM s WHERE id > 900000'),
	'200', 'rewind: the old primary has gone astray');
$primary->stop;
$standby->safe_psql('postgres', 'CHECKPOINT');
command_ok(
	[   'pg_rewind', '--target-pgdata', $primary->data_dir,
		'--source-server', $standby->connstr('postgres'), '--no-sync' ],
	'pg_rewind');
$primary->append_conf('postgresql.conf', 'port = ' . $primary->port . "\n");
$primary->append_conf('postgresql.conf', "weir.debug_points = ''\n") if $debug;
$primary->enable_streaming($standby);
$primary->start;
$standby->wait_for_catchup($primary);
is($primary->safe_psql('postgres', 'SELECT count(*) FROM s WHERE id > 900000'),
	'0', 'rewind: what was astray is gone');
is($primary->safe_psql('postgres', 'SELECT DISTINCT state FROM weir.views'),
	'standby', 'rewind: a standby now');
insert_ids($standby, 1501);
$standby->wait_for_catchup($primary);
$standby->stop('immediate');
$primary->promote;
exact($primary, 'rewind, promoted back');
is($primary->safe_psql('postgres', 'SELECT count(*), count(DISTINCT id) FROM s WHERE id >= 1500'),
	'4|2', 'rewind: with what came meanwhile');
insert_ids($primary, 1502);
exact($primary, 'rewind, promoted back, and on');

weir_log_is_clean($primary);
$primary->stop;
done_testing();
