# Summaries of runs of the log: whoever passes over runs by them comes to what
# he would come to without.  Random transactions (of many chunks, of pieces,
# prepared, rolled back), VACUUM, summaries, trimming and restarts; the seed is
# printed (WEIR_SEED).  WEIR_ROUNDS: more than 60.

use strict;
use warnings;

use lib 'test/tap';
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use WeirTest;

my $seed = $ENV{WEIR_SEED} // int(rand(2**31));
my $rounds = $ENV{WEIR_ROUNDS} // 60;
srand($seed);
note("WEIR_SEED=$seed");

my $node = PostgreSQL::Test::Cluster->new('runs');
$node->init(allows_streaming => 1, extra => [ '--no-locale', '--encoding=UTF8' ]);
$node->append_conf('postgresql.conf', slurp_file('test/pg_weir.conf'));
$node->append_conf('postgresql.conf', "max_prepared_transactions = 10\nautovacuum = off\n");
$node->start;
my $sql = sub { return $node->safe_psql('postgres', join(";\n", @_)) };
$sql->('CREATE EXTENSION pg_weir');

# A run is as long as the build says.
$sql->(q{CREATE TABLE probe (x text) USING stream},
	q{INSERT INTO probe SELECT repeat(md5(i::text), 100) FROM generate_series(1, 40) i}, 'VACUUM probe');
if ($sql->(q{SELECT weir.summarize('probe')}) eq '0')
{
	plan skip_all => 'runs are short in a build with debug points only';
}
$sql->('DROP TABLE probe');
is($sql->('SELECT count(*) FROM weir.log_run'), '0', 'DROP forgets');

# Who may, and of what.
$sql->('CREATE TABLE heap (x int) USING heap', 'CREATE UNLOGGED TABLE u (x text) USING stream',
	q{INSERT INTO u SELECT repeat(md5(i::text), 100) FROM generate_series(1, 100) i}, 'VACUUM u',
	'CREATE ROLE other', 'GRANT ALL ON u TO other');
is($sql->(q{SELECT weir.summarize('u')}), '0', 'an unlogged stream has none');
my ($rc, $out, $err) = $node->psql('postgres', q{SELECT weir.summarize('heap')});
like($err, qr/"heap" is not a stream/, 'not of a table');
($rc, $out, $err) = $node->psql('postgres', q{SET ROLE other; SELECT weir.summarize('u')});
like($err, qr/must be owner of table u/, 'by the owner only');
($rc, $out, $err) = $node->psql('postgres', q{SET ROLE other; SELECT * FROM weir.log_run});
like($err, qr/permission denied for table log_run/, 'nobody reads them');
$sql->('DROP TABLE heap, u', 'DROP ROLE other');

$sql->(q{
	CREATE TABLE s (id bigint GENERATED ALWAYS AS IDENTITY, ts timestamptz NOT NULL, k int, v text)
		USING stream WITH (event_time = ts, watermark_delay = '1 hour')});
my $query = q{SELECT k, count(*) AS n, sum(id)::bigint AS ids, sum(length(v)) AS len FROM s GROUP BY k};
my $windows = q{SELECT window_start, count(*) AS n FROM s, tumble(ts, '5 minutes') GROUP BY window_start};
$sql->("CREATE MATERIALIZED VIEW v USING continuous AS $query");
my ($sum, $xor) = (0, 0);
my $clock = 0;    # minutes
my $prepared = 0;
my @prepared;

# Rows of one transaction: in parts, so that transactions of sessions mix.
sub rows
{
	my ($n, $width) = @_;
	my $from = $clock;

	$clock += int(rand(4));
	return qq{INSERT INTO s (ts, k, v)
		SELECT '2026-01-01Z'::timestamptz + ($from + random() * 60) * interval '1 min', i % 5,
			(SELECT string_agg(md5(random()::text || j), '') FROM generate_series(1, $width) j)
		FROM generate_series(1, $n) i};
}

sub insert
{
	my $kind = int(rand(10));

	if ($kind < 5)
	{
		$sql->(rows(1 + int(rand($kind == 0 ? 3000 : 150)), 1 + int(rand(5))));
	}
	elsif ($kind == 5)
	{
		$sql->(rows(1 + int(rand(4)), 300 + int(rand(3000))));    # pieces
	}
	elsif ($kind == 6)
	{
		$sql->('BEGIN', rows(200, 2), 'SAVEPOINT a', rows(300, 2), 'ROLLBACK TO a', rows(5, 400), 'COMMIT');
	}
	elsif ($kind == 7)
	{
		$sql->('BEGIN', rows(700, 2), 'ROLLBACK');
	}
	elsif ($kind == 8 && @prepared < 5)
	{
		my $name = 'p' . $prepared++;
		$sql->('BEGIN', rows(1 + int(rand(400)), 2), "PREPARE TRANSACTION '$name'");
		push @prepared, $name;
	}
	else
	{
		# two at once: their chunks take turns
		my @sessions = map { $node->background_psql('postgres', on_error_stop => 1) } 1 .. 2;
		$_->query_safe('BEGIN') foreach @sessions;
		for (1 .. 5)
		{
			$_->query_safe(rows(60, 3)) foreach @sessions;
		}
		$_->query_safe('COMMIT') foreach reverse @sessions;
		$_->quit foreach @sessions;
	}
}

# The same with and without what summaries know.
sub check
{
	my $from = int(rand($clock + 60));
	my $to = $from + int(rand(90));
	my $a = "'2026-01-01Z'::timestamptz + interval '$from min'";
	my $b = "'2026-01-01Z'::timestamptz + interval '$to min'";

	is( $sql->("SELECT count(*), sum(id) FROM s WHERE ts >= $a AND ts < $b"),
		$sql->("SELECT count(*), sum(id) FROM s WHERE ts + interval '0' >= $a AND ts + interval '0' < $b"),
		"$from to $to");
	weir_wait($node, 'caught up');
	weir_same($node, 'v', $query);
}

my $passed = 0;
for my $round (1 .. $rounds)
{
	my $do = int(rand(12));

	insert() for 1 .. 1 + int(rand(3));
	if (@prepared && rand() < 0.3)
	{
		my $name = splice(@prepared, int(rand(@prepared)), 1);
		$sql->((rand() < 0.8 ? 'COMMIT' : 'ROLLBACK') . " PREPARED '$name'");
	}
	if ($do < 5 || $round == 1)
	{
		$sql->('VACUUM s');
		$passed += $sql->(q{SELECT weir.summarize('s')});
	}
	check() if $do < 8;
	if ($do == 6)
	{
		# worker and counters start anew; W comes out of the log
		my $w = $sql->(q{SELECT weir.watermark('s')});

		$node->stop(rand() < 0.5 ? 'fast' : 'immediate');
		$node->start;
		is($sql->(q{SELECT weir.watermark('s')}), $w, 'watermark');
		check();
	}
	if ($do == 7)
	{
		$sql->("CREATE MATERIALIZED VIEW w USING continuous WITH (allowed_lateness = infinity) AS $windows");
		weir_wait($node, 'a new view has caught up');
		weir_same($node, 'w', $windows);
		$sql->('DROP MATERIALIZED VIEW w');
	}
	if ($do == 8)
	{
		$sql->(q{SELECT weir.pause('v')});
		insert();
		$sql->('VACUUM s', q{SELECT weir.summarize('s')});
		$sql->(q{SELECT weir.resume('v')});
		check();
	}
}

# A start reads what is behind the position, not all of it.
$sql->("ROLLBACK PREPARED '$_'") foreach splice(@prepared);
$sql->(map { rows(3000, 3) } 1 .. 10);
weir_wait($node, 'caught up');
$sql->('SELECT weir.checkpoint()', 'VACUUM s', q{SELECT weir.summarize('s')});
# the numbers that summaries were made at are behind the position after this
$sql->(rows(1, 1));
weir_wait($node, 'caught up');
$sql->('SELECT weir.checkpoint()');
my $blocks = $sql->(q{SELECT pg_relation_size('s') / current_setting('block_size')::int});
my $opaque = $sql->('SELECT coalesce(sum(blocks), 0) FROM weir.log_run WHERE opaque');
my $covered = $sql->('SELECT coalesce(sum(blocks), 0) FROM weir.log_run WHERE NOT opaque');
$node->stop('fast');
$node->start;
$sql->(q{SELECT pg_stat_reset_single_table_counters('s'::regclass)});
$node->restart;
weir_wait($node, 'started');
$node->stop('fast');
$node->start;
my $fetched = $sql->(q{SELECT heap_blks_read + heap_blks_hit FROM pg_statio_all_tables WHERE relid = 's'::regclass});
cmp_ok($covered, '>', $blocks / 2, "$passed runs were summarized: $covered of $blocks blocks have a summary, $opaque are opaque");
# four scans: for prepared transactions, and to catch up; since 17.11 the one row
# has made all summaries invalid (src/runs.c)
cmp_ok($fetched, '<', 2 * $blocks, "two starts fetched $fetched blocks") if $node->pg_version < 17;

# A query by event time that is started again with another limit.
$sql->('VACUUM s', q{SELECT weir.summarize('s')});
my $late = $sql->('SELECT max(ts) - interval $$1 minute$$ FROM s');
my $order = 'SELECT ARRAY(SELECT id FROM s WHERE ts >= x.a)';
is( $sql->("$order FROM (VALUES ('$late'::timestamptz), ('-infinity')) x(a)"),
	$sql->("$order FROM (VALUES ('$late'::timestamptz)) x(a)", "$order FROM (VALUES ('-infinity'::timestamptz)) x(a)"),
	'the rows of each come in the order of the log');

# A damaged one is not believed, and made anew.
my $count = "SELECT count(*) FROM s WHERE ts >= '$late'";
my $found = $sql->($count);
cmp_ok($found, '>', 0, 'there are late ones');
$sql->('UPDATE weir.log_run SET max_time = min_time - 1');
is($sql->($count), $found, 'a damaged summary is not believed');
cmp_ok($sql->(q{SELECT weir.summarize('s')}), '>', 0, 'and made anew');

# Where incremental backups may be made, summaries are neither made nor used.
if ($node->pg_version >= 17)
{
	cmp_ok($sql->('SELECT count(*) FROM weir.log_run'), '>', 0, 'there are some');
	$node->append_conf('postgresql.conf', 'summarize_wal = on');
	$node->reload;
	$node->poll_query_until('postgres', q{SELECT current_setting('summarize_wal') = 'on'}) or die;
	is($sql->(q{SELECT weir.summarize('s')}), '0', 'with summarize_wal none is made');
	is($sql->('SELECT count(*) FROM weir.log_run'), '0', 'and none is kept');
	$node->append_conf('postgresql.conf', 'summarize_wal = off');
	$node->reload;
}

# Trimming by size: the oldest go, whole transactions, and nothing else; by age:
# everything that is old.
$sql->('DROP MATERIALIZED VIEW v', 'DROP TABLE s', q{
	CREATE TABLE s (id bigint GENERATED ALWAYS AS IDENTITY, ts timestamptz NOT NULL, k int, v text)
		USING stream WITH (event_time = ts, retention_size = '1 MB')},
	"CREATE MATERIALIZED VIEW v USING continuous AS SELECT count(*) AS n, sum(id)::bigint AS ids FROM s");
is($sql->('SELECT count(*) FROM weir.log_run'), '0', 'a new stream has none');
for my $round (1 .. $rounds / 3)
{
	$sql->(rows(1 + int(rand(2000)), 1 + int(rand(4)))) for 1 .. 3;
	$sql->(rows(1, 4000)) if rand() < 0.3;
	$sql->('VACUUM s', q{SELECT weir.summarize('s')}) if rand() < 0.7;
	weir_wait($node, 'caught up');
	$sql->('SELECT weir.checkpoint()') for (1, 2);
	my ($n, $min, $max) = split /\|/, $sql->('SELECT count(*), min(id), max(id) FROM s');
	is($n, $max - $min + 1, 'what remains is the newest');
	is($sql->('SELECT n || $$ $$ || ids FROM v'), $max . ' ' . $max * ($max + 1) / 2, 'the view has all');
	my $w = $sql->(q{SELECT weir.watermark('s')});
	if (rand() < 0.2)
	{
		$node->restart;
		is($sql->(q{SELECT weir.watermark('s')}), $w, 'watermark');
	}
}
my $live = $sql->('SELECT sum(pg_column_size(v)) FROM s');
cmp_ok($live, '<', 3 * 1024 * 1024, "$live bytes remain");
cmp_ok($sql->('SELECT min(id) FROM s'), '>', 1, 'something was trimmed');
$sql->('VACUUM s', q{SELECT weir.summarize('s')}, q{ALTER TABLE s SET (retention = '1 us', retention_size = 'infinity')});
$sql->('SELECT weir.checkpoint()') for (1, 2);
is($sql->('SELECT count(*) FROM s'), '0', 'all of it is old');
$sql->('VACUUM s', q{SELECT weir.summarize('s')}, 'VACUUM FULL s', q{SELECT weir.summarize('s')});
is($sql->(q{SELECT count(*) FROM weir.log_run WHERE filenumber <> pg_relation_filenode('s')}), '0',
	'none is of another file');

# More transactions than a reader keeps, by several writers: who comes late has each
# once, whether all of it has summaries or a part.
$sql->(q{CREATE TABLE small (id bigint GENERATED ALWAYS AS IDENTITY, k int) USING stream},
	q{CREATE PROCEDURE write(n int) LANGUAGE plpgsql AS
		'BEGIN FOR i IN 1 .. n LOOP INSERT INTO small (k) VALUES (i % 9); COMMIT; END LOOP; END'});
my @writers = map { $node->background_psql('postgres') } 1 .. 3;
my $small = 'SELECT k, count(*) AS n, sum(id)::bigint AS ids FROM small GROUP BY k';
foreach my $part (1 .. 3)
{
	$_->{run}->pump_nb, $_->{stdin} .= "CALL write(2500);\n" foreach @writers;
	$_->query_safe('SELECT 1') foreach @writers;
	$sql->('VACUUM small', q{SELECT weir.summarize('small')}) if $part < 3;
	$sql->("CREATE MATERIALIZED VIEW small_$part USING continuous AS $small");
	weir_wait($node, 'a view comes late');
	weir_same($node, "small_$part", $small);
	is($sql->("SELECT sum(n) FROM small_$part"), $part * 3 * 2500, 'each once');
	cmp_ok($sql->(q{SELECT count(*) FROM weir.log_run WHERE stream = 'small'::regclass AND NOT opaque}), '>', 10,
		'there are runs of small transactions');
}
$_->quit foreach @writers;

# A rebuild that has come to the end of what the reader keeps is not through: a view
# that has failed shows what it had until it is.
$sql->('CREATE MATERIALIZED VIEW fails USING continuous AS SELECT count(*) AS n, sum(1 / (id - 9000)) AS x FROM small');
my $failed = q{SELECT state = 'failed' FROM weir.views WHERE view = 'fails'::regclass};
ok($node->poll_query_until('postgres', $failed), 'a view fails');
my $had = $sql->('TABLE fails');
my $lock = $node->background_psql('postgres');
$lock->query_safe(q{SELECT pg_advisory_lock(1465207378, hashtext('reader-scan'))});
$sql->(q{ALTER SYSTEM SET weir.debug_points = 'reader-scan=wait@6'});
$node->reload;
$sql->('REFRESH MATERIALIZED VIEW fails');
ok( $node->poll_query_until('postgres', q{SELECT count(*) > 0 FROM pg_locks WHERE locktype = 'advisory'
	AND objid::bigint = hashtext('reader-scan')::bigint & 4294967295 AND NOT granted}),
	'its rebuild wants more of the log');
is($sql->('TABLE fails'), $had, 'it shows what it had');
$sql->('ALTER SYSTEM RESET weir.debug_points');
$node->reload;
$lock->query_safe('SELECT pg_advisory_unlock_all()');
$lock->quit;
ok($node->poll_query_until('postgres', $failed), 'it fails again');
is($sql->('TABLE fails'), $had, 'at the same event');
$sql->('DROP MATERIALIZED VIEW fails');

$sql->('SELECT weir.pause(view) FROM weir.views');
$node->restart;
$sql->('SELECT weir.resume(view) FROM weir.views');
weir_wait($node, 'and after a restart');
weir_same($node, $_, $small) foreach 'small_1', 'small_2', 'small_3';

weir_log_is_clean($node);
$node->stop;
done_testing();
