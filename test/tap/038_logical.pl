# Logical replication: nothing of a stream is decoded, nothing of the extension's
# own tables arrives at a subscriber, and a subscription writes into a stream,
# exactly once.
use strict;
use warnings;

use lib 'test/tap';

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use WeirTest;

my $pub = weir_node('pub');
my $sub = weir_node('sub', conf => "wal_retrieve_retry_interval = '100ms'\nlog_min_messages = warning\n");
my $from = sub { $pub->connstr($_[0]) =~ s/'/''/gr };

# The same on both, so that their OIDs are the same, too.
my $query = q{SELECT window_end, count(*) AS n, sum(id) AS s FROM s, tumble(ts, '1 minute') GROUP BY window_end};
$_->safe_psql('postgres', qq{
	BEGIN; -- no worker takes OIDs meanwhile
	CREATE TABLE p (id int PRIMARY KEY, t text);
	CREATE TABLE s (id int, ts timestamptz NOT NULL, t text) USING stream WITH (event_time = ts, watermark_delay = '0 s');
	CREATE MATERIALIZED VIEW v USING continuous WITH (late_table = 'late') AS $query;
	CREATE MATERIALIZED VIEW u USING continuous AS SELECT id % 10 AS k, count(*) AS n FROM s GROUP BY 1;
	COMMIT})
  for $pub, $sub;
my $insert = sub {
	my ($node, $first, $last) = @_;
	$node->safe_psql('postgres', "INSERT INTO s SELECT i, timestamptz '2026-01-01Z' + i * interval '1 s', 'event ' || i FROM generate_series($first, $last) i");
};

# ---- a stream is not decoded ----
$pub->safe_psql('postgres', q{CREATE PUBLICATION every FOR ALL TABLES});
$pub->safe_psql('postgres', q{SELECT pg_create_logical_replication_slot('decode', 'test_decoding', false, true)});
my $decoded = sub {
	my ($table) = @_;

	return $pub->safe_psql('postgres', qq{
		SELECT regexp_replace(data, '^table public\\.$table: ', '') FROM pg_logical_slot_peek_changes('decode', NULL, NULL)
		  WHERE data LIKE 'table public.$table:%' ORDER BY 1});
};
$insert->($pub, 1, 1000);
$pub->safe_psql('postgres', q{
	INSERT INTO s SELECT 0, '2026-01-01Z', repeat(md5(i::text), 1000) FROM generate_series(1, 3) i;
	BEGIN;
	INSERT INTO s VALUES (2000, '2026-01-01 01:00Z', 'prepared');
	INSERT INTO p VALUES (1, 'prepared');
	PREPARE TRANSACTION 'two';
	COMMIT PREPARED 'two';
	INSERT INTO p VALUES (2, 'plain')});
weir_wait($pub, 'publisher');
$pub->safe_psql('postgres', 'SELECT weir.checkpoint()');
is($decoded->('s'), '', 'events are not decoded');
$pub->safe_psql('postgres', 'VACUUM FULL s');
is($decoded->('s'), '', 'nor is a rewrite');
$pub->safe_psql('postgres', q{ALTER TABLE s SET (retention = '1 us'); SELECT weir.checkpoint()});
is($pub->safe_psql('postgres', 'SELECT count(*) FROM s'), '0', 'retention');
like($decoded->('s'), qr/\A(DELETE: \(no-tuple-data\)\n?)+\z/, 'of retention there is no more than that');
is($decoded->('p'), join("\n", map { "INSERT: id[integer]:$_" } q{1 t[text]:'prepared'}, q{2 t[text]:'plain'}),
	'other tables are, from the same transactions');
my ($ret, $out, $err) = $pub->psql('postgres', "\\set VERBOSITY verbose\nCREATE PUBLICATION streams FOR TABLE s");
like($err, qr/ERROR:  0A000: cannot publish stream "s"/, 'so a stream cannot be published by name');

# ---- FOR ALL TABLES ----
# It has the tables of the extension.  Both sides have views of the same OIDs:
# what is written about them at one side is nothing to the other.
$pub->safe_psql('postgres', q{SELECT pg_drop_replication_slot('decode'); ALTER TABLE s RESET (retention)});
$insert->($sub, 1, 777);
weir_wait($sub, 'subscriber');
$sub->safe_psql('postgres', 'SELECT weir.checkpoint()');
is($sub->safe_psql('postgres', q{SELECT 'v'::regclass::oid}), $pub->safe_psql('postgres', q{SELECT 'v'::regclass::oid}), 'the same OIDs');
$sub->safe_psql('postgres', 'CREATE SUBSCRIPTION every CONNECTION \'' . $from->('postgres') . q{' PUBLICATION every WITH (two_phase = on)});
$sub->wait_for_subscription_sync($pub, 'every');
my $same = sub {
	my ($what, $tables) = @_;

	weir_wait($sub, "$what: caught up");
	weir_same($sub, 'v', $query, "$what: windows");
	weir_same($sub, 'u', 'SELECT id % 10, count(*) FROM s GROUP BY 1', "$what: keys");
	is($sub->safe_psql('postgres', q{SELECT count(*), (SELECT count(*) FROM p), (SELECT string_agg(view::text || ' ' || state, ', ' ORDER BY view::text) FROM weir.views) FROM s}),
		"777|$tables|u running, v running", "$what: its own, and what is in tables");
};
$same->('subscribed', 2);
# windows that close, late events, a view come and gone, an ended stream
$insert->($pub, 3000, 4000);
$insert->($pub, 1, 10);
$pub->safe_psql('postgres', q{
	CREATE MATERIALIZED VIEW w USING continuous AS SELECT count(*) AS n FROM s;
	SELECT weir.wait_for(), weir.checkpoint();
	DROP MATERIALIZED VIEW w;
	REFRESH MATERIALIZED VIEW u WITH NO DATA;
	SELECT weir.summarize('s');
	SELECT weir.advance_watermark('s', 'infinity');
	SELECT weir.wait_for(), weir.checkpoint();
	INSERT INTO p VALUES (3, 'last')});
$pub->wait_for_catchup('every');
$same->('publisher at work', 3);
$sub->stop('immediate');
$sub->start;
$same->('from its own checkpoint', 3);
is($sub->safe_psql('postgres', 'SELECT count(*) FROM weir.view_wish, weir.stream_end'), '0', 'its streams have not ended');
# a role that restores has the same settings and means it
is( $sub->safe_psql('postgres', q{BEGIN; SET LOCAL session_replication_role = replica;
		WITH i AS (INSERT INTO weir.stream_trim VALUES (1, 1, 0, 0) RETURNING 1) SELECT count(*) FROM i; ROLLBACK}),
	'1', 'sessions are not kept out');
$sub->safe_psql('postgres', 'DROP SUBSCRIPTION every');

# A late table is in it, too: nothing need be deleted from it until a rebuild has
# late events to replace, which needs a replica identity.
$pub->safe_psql('postgres', q{
	CREATE TABLE l (id int, ts timestamptz NOT NULL) USING stream WITH (event_time = ts, watermark_delay = '0 s');
	CREATE MATERIALIZED VIEW lv USING continuous WITH (late_table = 'l_late') AS
		SELECT window_end, count(*) AS n FROM l, tumble(ts, '1 minute') GROUP BY window_end;
	REFRESH MATERIALIZED VIEW lv;
	INSERT INTO l VALUES (1, '2026-01-02Z');
	INSERT INTO l VALUES (2, '2026-01-01Z')});
weir_wait($pub, 'a view with a late table that is published');
$pub->safe_psql('postgres', 'SELECT weir.checkpoint(); REFRESH MATERIALIZED VIEW lv');
ok($pub->poll_query_until('postgres', q{SELECT error ~ 'replica identity' FROM weir.views WHERE view = 'lv'::regclass}), 'to replace its rows it needs a replica identity');
is($pub->safe_psql('postgres', 'SELECT count(*) FROM l_late'), '1', 'which are there');
$pub->safe_psql('postgres', 'ALTER TABLE l_late REPLICA IDENTITY FULL');
ok(weir_go_on($pub), 'it goes on with one');
is($pub->safe_psql('postgres', 'SELECT weir.checkpoint(); SELECT count(*) FROM l_late'), "\n1", 'and replaces them');

# ---- into a stream ----
my $events = 'id int, ts timestamptz NOT NULL, x int';
$_->safe_psql('postgres', 'CREATE DATABASE "into"') for $pub, $sub;
$pub->safe_psql('into', "CREATE TABLE e ($events); CREATE PUBLICATION e FOR TABLE e;
	INSERT INTO e SELECT i, timestamptz '2026-01-01Z' + i * interval '1 s', 1 FROM generate_series(1, 500) i");
my %into = (
	per_minute => q{SELECT window_end, count(*) AS n, sum(x) AS x FROM e, tumble(ts, '1 minute') GROUP BY window_end},
	per_id     => q{SELECT id, count(*) AS n, sum(x) AS x, array_agg(x ORDER BY x) AS xs FROM e GROUP BY id});
$sub->safe_psql('into', join '; ', 'CREATE EXTENSION pg_weir',
	"CREATE TABLE e ($events) USING stream WITH (event_time = ts, watermark_delay = '1 day')",
	map { "CREATE MATERIALIZED VIEW $_ USING continuous AS $into{$_}" } sort keys %into);
$sub->safe_psql('into', 'CREATE SUBSCRIPTION e CONNECTION \'' . $from->('into') . q{' PUBLICATION e WITH (two_phase = on)});
$sub->wait_for_subscription_sync($pub, 'e', 'into');
my $exact = sub {
	my ($what) = @_;

	$pub->wait_for_catchup('e');
	is($sub->safe_psql('into', "SELECT weir.wait_for(timeout => '120 s')"), 't', "$what: caught up");
	my $rows = 'SELECT count(*), sum(id), sum(x), count(DISTINCT id), max(ts) FROM e';
	is($sub->safe_psql('into', $rows), $pub->safe_psql('into', $rows), "$what: every event once");
	is($sub->safe_psql('into', "SELECT count(*) FROM ((TABLE $_ EXCEPT ALL $into{$_}) UNION ALL ($into{$_} EXCEPT ALL TABLE $_)) d"),
		'0', "$what: $_")
	  for sort keys %into;
};
$exact->('copied');

# Transactions of all kinds, while the process that applies them dies again and
# again, wherever it stands.
my $next = 1000;
my $kills = 0;
for my $round (1 .. 12)
{
	my $id = $next;

	$next += 400;
	$pub->safe_psql('into', qq{
		INSERT INTO e SELECT i, timestamptz '2026-01-01Z' + i * interval '1 s', 1 FROM generate_series($id, $id + 99) i;
		BEGIN;
		INSERT INTO e SELECT i, timestamptz '2026-01-01Z' + i * interval '1 s', 2 FROM generate_series($id + 100, $id + 149) i;
		SAVEPOINT a;
		INSERT INTO e SELECT i, timestamptz '2026-01-01Z' + i * interval '1 s', 3 FROM generate_series($id, $id + 99) i;
		ROLLBACK TO a;
		INSERT INTO e VALUES ($id, '2026-01-01Z', 4);
		COMMIT;
		BEGIN;
		INSERT INTO e SELECT i, timestamptz '2026-01-01Z' + i * interval '1 s', 5 FROM generate_series($id + 200, $id + 299) i;
		PREPARE TRANSACTION 'kept $round';
		BEGIN;
		INSERT INTO e VALUES ($id, '2026-01-01Z', 6);
		PREPARE TRANSACTION 'dropped $round';});
	$kills += $sub->safe_psql('into', q{SELECT count(pg_terminate_backend(pid)) FROM pg_stat_subscription WHERE subname = 'e' AND pid IS NOT NULL});
	$pub->safe_psql('into', "COMMIT PREPARED 'kept $round'; ROLLBACK PREPARED 'dropped $round'");
	if ($round == 6)
	{
		weir_kill9($sub);
		weir_start($sub);
	}
}
cmp_ok($kills, '>=', 1, "killed $kills times");
$exact->('through deaths');
is($sub->safe_psql('into', 'SELECT count(*) FROM pg_prepared_xacts'), '0', 'nothing is left prepared');
is($sub->safe_psql('into', 'SELECT count(*) FROM e WHERE x IN (3, 6)'), '0', 'and nothing rolled back is there');

# What a stream cannot do stops the subscription, not the server.
$pub->safe_psql('into', q{ALTER TABLE e REPLICA IDENTITY FULL; UPDATE e SET x = 7 WHERE id = 1});
ok($sub->poll_query_until('into', q{SELECT apply_error_count > 0 FROM pg_stat_subscription_stats WHERE subname = 'e'}),
	'an update is refused');
like(slurp_file($sub->logfile), qr/ERROR: .*(stream "e"|"public\.e")/, 'and the log says so');
$sub->safe_psql('into', q{ALTER SUBSCRIPTION e DISABLE; ALTER SUBSCRIPTION e SET (slot_name = NONE); DROP SUBSCRIPTION e});

weir_log_is_clean($_) for $pub, $sub;
$_->stop for $sub, $pub;
done_testing();
