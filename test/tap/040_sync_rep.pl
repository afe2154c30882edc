# Synchronous replication to a standby that is not there.  Commits of clients hang,
# those of workers do not: views go on, windows become final, and a fast stop ends.
use strict;
use warnings;

use lib 'test/tap';
use IPC::Run;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use WeirTest;

my $node = weir_node('sync_rep');

$node->safe_psql('postgres', q{
	CREATE TABLE s (k int, ts timestamptz NOT NULL) USING stream WITH (event_time = ts, watermark_delay = '0', retention = '1 us');
	CREATE MATERIALIZED VIEW v USING continuous WITH (late_table = 'v_late') AS
		SELECT window_start, count(*) AS n FROM s, tumble(ts, '1 minute') GROUP BY window_start;
	ALTER SYSTEM SET synchronous_standby_names = 'nobody';
	SELECT pg_reload_conf()});
# the worker has it, too, once it is new
$node->restart;
is($node->safe_psql('postgres', 'SHOW synchronous_commit'), 'on', 'commits are synchronous');

# these do not wait; the worker is nobody's session
$ENV{PGOPTIONS} = '-c synchronous_commit=local -c statement_timeout=60s';
for my $minute (1 .. 3)
{
	$node->safe_psql('postgres', "INSERT INTO s SELECT i, '2026-01-01 00:00Z'::timestamptz + interval '$minute minutes' FROM generate_series(1, 10) i");
	$node->safe_psql('postgres', q{INSERT INTO s VALUES (0, '2026-01-01')}) if $minute > 1;
	weir_wait($node, "minute $minute is consumed");
	$node->safe_psql('postgres', 'SELECT weir.checkpoint()');
}
is($node->safe_psql('postgres', 'SELECT count(*) FROM v_late'), '2', 'late events are in their table');
is($node->safe_psql('postgres', q{SELECT final_rows FROM weir.views}), '2', 'windows are final');
ok($node->poll_query_until('postgres', 'SELECT count(*) = 0 FROM s WHERE k > 0'), 'the log is trimmed');

# One that hangs has its number: what comes after it waits for it, and counts it.
local $ENV{PGOPTIONS} = '-c synchronous_commit=on';
my $hanging = IPC::Run::start(
	[ 'psql', '-XqAt', '-d', $node->connstr('postgres'), '-c', q{INSERT INTO s VALUES (1, '2026-01-01 00:04Z')} ],
	'>', \my $out, '2>', \my $err);
local $ENV{PGOPTIONS} = '-c synchronous_commit=local -c statement_timeout=60s';
$node->poll_query_until('postgres', q{SELECT count(*) = 1 FROM pg_stat_activity WHERE wait_event = 'SyncRep'})
  or die 'nobody waits for the standby';
$node->safe_psql('postgres', q{INSERT INTO s VALUES (2, '2026-01-01 00:04Z')});
is($node->safe_psql('postgres', q{SELECT weir.wait_for('v', '0')}), 'f', 'a commit that hangs holds up those after it');
is($node->safe_psql('postgres', q{SELECT count(pg_cancel_backend(pid)) FROM pg_stat_activity WHERE wait_event = 'SyncRep'}), '1',
	'its client gives up');
ok(IPC::Run::finish($hanging), 'it has committed') or diag($err);
like($err, qr/canceling wait for synchronous replication/, 'and is told so');
weir_wait($node, 'all is consumed');
is($node->safe_psql('postgres', q{SELECT n FROM v WHERE window_start = '2026-01-01 00:04Z'}), '2', 'both count');

ok($node->stop('fast'), 'a fast stop ends');
$node->start;
weir_wait($node, 'after a restart');
is($node->safe_psql('postgres', 'SELECT sum(n) FROM v'), '32', 'all is there');

weir_log_is_clean($node);
$node->stop;
done_testing();
