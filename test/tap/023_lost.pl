# A view that does not move keeps retention from its work, and the operator sees
# which; beyond weir.max_held_log it is lost: the log goes, the view answers on
# with what it has, and REFRESH begins anew from what is left.
use strict;
use warnings;

use lib 'test/tap';

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use WeirTest;

my $node = weir_node('lost');
$node->append_conf('postgresql.conf', "restart_after_crash = on\nlog_min_messages = warning\n");
$node->restart;

sub sql { return $node->safe_psql('postgres', $_[0]) }

sub error_of
{
	my ($sql) = @_;
	my ($ret, $out, $err) =
	  $node->psql('postgres', "\\set VERBOSITY verbose\n$sql", timeout => 60);
	return $err;
}

sub state_of { return sql("SELECT state FROM weir.views WHERE view = '$_[0]'::regclass") }

# 1 kB an event
my $id = 0;
sub events
{
	my ($n, $stream) = @_;
	$stream //= 's';
	my $to = $id + $n;
	sql("INSERT INTO $stream SELECT i, i % 10, repeat(md5(i::text), 32) FROM generate_series($id + 1, $to) i");
	$id = $to;
}

# Twice, as what the first has saved the second may trim.
sub trim { sql('SELECT weir.checkpoint()') for 1, 2 }

sub pause
{
	my ($view) = @_;
	sql("SELECT weir.pause('$view')");
	$node->poll_query_until('postgres',
		"SELECT bool_and(state = 'paused') FROM weir.views WHERE view = '$view'::regclass") or die;
}

sub setting
{
	my ($value) = @_;
	sql("ALTER SYSTEM SET weir.max_held_log = '$value'");
	sql('SELECT pg_reload_conf()');
	$node->poll_query_until('postgres',
		"SELECT setting::text = split_part('$value', 'M', 1) FROM pg_settings WHERE name = 'weir.max_held_log'") or die;
}

sql(q{
	CREATE TABLE s (id int, k int, t text) USING stream WITH (retention = '1 us');
	CREATE MATERIALIZED VIEW a USING continuous AS SELECT k, count(*) AS n, sum(id) AS ids FROM s GROUP BY k;
	CREATE MATERIALIZED VIEW b USING continuous AS SELECT k, count(*) AS n, sum(id) AS ids FROM s GROUP BY k;
	CREATE MATERIALIZED VIEW c USING continuous AS SELECT k, count(*) AS n, sum(id) AS ids FROM s GROUP BY k;
	CREATE TABLE other (id int, k int, t text) USING stream WITH (retention_size = '100MB');
	CREATE MATERIALIZED VIEW d USING continuous AS SELECT count(*) AS n, sum(id) AS ids FROM other});

# ------------------------------------------------------ who holds the log

events(1000);
weir_wait($node);
trim();
is(sql('SELECT count(*) FROM s'), '0', 'nobody holds anything');
pause('a');
my $kept = sql('SELECT * FROM a ORDER BY k');
events(3000);
weir_wait($node, 'the others go on');
trim();
is(sql('SELECT count(*) FROM s'), '3000', 'a paused view holds the log');
is(sql(q{SELECT held_by FROM weir.streams WHERE stream = 's'::regclass}), 'a', 'and is named');
is(sql('SELECT sum(n) FROM b'), '4000', 'the others have all');

# a warning at each doubling, from 2 MB in this build
SKIP:
{
	skip 'needs a DEBUG=1 build', 2
	  if $node->psql('postgres', 'SHOW weir.debug_points') != 0;
	my $warnings = sub {
		return join ' ', slurp_file($node->logfile) =~ /WARNING:  continuous view "(\w+)" holds back/g;
	};
	trim() for 1 .. 3;
	is($warnings->(), 'a', 'the log warns of it, once');
	events(3000);
	trim() for 1 .. 3;
	is($warnings->(), 'a a', 'and when it has doubled');
}

pause('c');
events(500);
weir_wait($node);
setting('100MB');
trim();
is(state_of('a'), 'paused', 'it holds less than the limit');
is(sql('SELECT count(*) FROM s'), $id - 1000, 'and all is there');

# what retention keeps anyway is held by nobody
pause('d');
events(3000, 'other');
setting('1MB');
trim();
is(state_of('d'), 'paused', 'what retention keeps is not held back by a view');
is(sql('SELECT count(*) FROM other'), '3000', 'and is kept');
sql(q{SELECT weir.resume('d')});

# ------------------------------------------------------------------ lost

$node->poll_query_until('postgres',
	"SELECT state = 'lost' FROM weir.views WHERE view = 'a'::regclass") or die 'a is not lost';
trim();
is(state_of('c'), 'paused', 'a view that holds less stays');
is(sql('SELECT count(*) FROM s'), '500', 'what only the lost one needed is gone');
is(sql(q{SELECT held_by FROM weir.streams WHERE stream = 's'::regclass}), 'c', 'the other holds the log');

sub is_lost
{
	my ($what) = @_;
	is(state_of('a'), 'lost', "$what: lost");
	is(sql('SELECT * FROM a ORDER BY k'), $kept, "$what: it answers with what it had");
	like(sql(q{SELECT error FROM weir.views WHERE view = 'a'::regclass}),
		qr/max_held_log.*REFRESH.*drop/, "$what: and says what to do");
	my $err = error_of(q{SELECT weir.resume('a')});
	like($err, qr/ERROR:  55000: .*HINT:  Use REFRESH/s, "$what: it cannot be resumed");
	like(error_of(q{SELECT weir.wait_for('a')}), qr/ERROR:  55000: .*"lost".*HINT:  Use REFRESH/s,
		"$what: nor waited for");
}
is_lost('at first');
like(error_of('SELECT weir.wait_for()'), qr/WARNING: .*"a" is not running/, 'wait_for passes over it');
is(sql(q{SELECT sqlstate FROM weir.errors WHERE view = 'a'::regclass}), '55000', 'weir.errors tells it once');
$node->restart;
is_lost('restarted');
$node->stop('immediate');
$node->start;
is_lost('after a crash');
sql('SELECT pg_terminate_backend(pid) FROM weir.workers');
events(100);
weir_wait($node);
is_lost('new worker');
sql(q{SELECT weir.pause('a')});
is_lost('paused again');

# the one that was not lost goes on, exactly
sql(q{SELECT weir.resume('c')});
weir_wait($node);
weir_same($node, 'c', 'SELECT * FROM b', 'the view that was resumed in time');

# ------------------------------------------------------------- REFRESH

sql('ALTER TABLE s RESET (retention)');
events(200);
weir_wait($node);
my $left = 'SELECT k, count(*), sum(id) FROM s GROUP BY k';
my $n = sql('SELECT count(*) FROM s');
cmp_ok($n, '<', 1000, "$n events are left");
like(error_of('REFRESH MATERIALIZED VIEW a'), qr/NOTICE: .*events that are left.*DETAIL/s,
	'REFRESH says what it counts');
weir_wait($node, 'rebuilt');
is(state_of('a'), 'running', 'rebuilt: it runs');
weir_same($node, 'a', $left, 'rebuilt: from what was left');
is(sql(q{SELECT error IS NULL FROM weir.views WHERE view = 'a'::regclass}), 't', 'rebuilt: no error');
events(300);
weir_wait($node);
weir_same($node, 'a', $left, 'rebuilt: and on');
is(sql('SELECT sum(n) FROM b'), $id - 3000, 'the others never noticed');
sql('REFRESH MATERIALIZED VIEW a');
weir_wait($node);
weir_same($node, 'a', $left, 'it can be refreshed as any other');
like(error_of('REFRESH MATERIALIZED VIEW b'), qr/ERROR:  55000/, 'one that is not lost keeps what it counted');

# --------------------------------------------------------- a failed view

sql(q{CREATE MATERIALIZED VIEW f USING continuous AS SELECT sum(1 / (id - id)) AS n, count(*) FROM s WHERE k = 3});
$node->poll_query_until('postgres',
	"SELECT state = 'failed' FROM weir.views WHERE view = 'f'::regclass") or die;
trim();
events(3000);
weir_wait($node);
sql(q{ALTER TABLE s SET (retention = '1 us')});
trim();
is(state_of('f'), 'lost', 'a failed view is lost');
like(sql(q{SELECT error FROM weir.views WHERE view = 'f'::regclass}), qr/division by zero/, 'and tells its failure');
is(sql('SELECT count(*) FROM s'), '0', 'the log is free');
is(sql('TABLE f'), '|0', 'it answers');
sql('TRUNCATE s');
sql('DROP MATERIALIZED VIEW f');
is(sql(q{SELECT count(*) FROM weir.view_position p WHERE NOT EXISTS (SELECT FROM pg_class c WHERE c.oid = p.view)}),
	'0', 'nothing of it is left');
weir_wait($node);

# ---------------------------------------------------- races and crashes

SKIP:
{
	skip 'needs a DEBUG=1 build', 1
	  if $node->psql('postgres', 'SHOW weir.debug_points') != 0;

	# Paused, and holds too much; the trimmer does not get to it before "points".
	my $counted;
	my $prepare = sub {
		my ($points) = @_;
		sql('ALTER TABLE s RESET (retention)');
		$counted = sql('SELECT sum(n) FROM a');
		pause('a');
		events(3000);
		weir_wait($node);
		sql("ALTER SYSTEM SET weir.debug_points = '$points'");
		sql('SELECT pg_reload_conf()');
		$node->poll_query_until('postgres', "SELECT current_setting('weir.debug_points') = '$points'");
	};

	# Dies between the mark and the trim, or between the trim and the commit:
	# neither has happened.
	for my $point (qw(retention-marked retention-commit))
	{
		$prepare->("$point=kill");
		my $all = sql('SELECT count(*) FROM s');
		my $from = -s $node->logfile;
		sql(q{ALTER TABLE s SET (retention = '1 us')});
		for (1 .. 1200)
		{
			last if substr(slurp_file($node->logfile), $from) =~ /signal 9/;
			select(undef, undef, undef, 0.1);
		}
		like(substr(slurp_file($node->logfile), $from), qr/signal 9/, "$point: it died there");
		$node->stop('immediate');
		$node->append_conf('postgresql.auto.conf', "weir.debug_points = ''\nweir.max_held_log = -1\n");
		$node->start;
		trim();
		is(state_of('a'), 'paused', "$point: not lost");
		is(sql('SELECT count(*) FROM s'), $all, "$point: nor trimmed");
		sql(q{SELECT weir.resume('a')});
		weir_wait($node);
		trim();
		is(sql('SELECT sum(n) FROM a') - $counted, '3000', "$point: nothing is left out");
		setting('1MB');
	}

	# resume() while it is being given up: it comes too late
	$prepare->('retention-marked=wait');
	my $lock = $node->background_psql('postgres');
	$lock->query_safe(q{SELECT pg_advisory_lock(1465207378, hashtext('retention-marked'))});
	sql(q{ALTER TABLE s SET (retention = '1 us')});
	$node->poll_query_until('postgres',
		"SELECT count(*) = 1 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted") or die;
	is(state_of('a'), 'paused', 'race: not yet');
	my $resume = $node->background_psql('postgres', on_error_stop => 0);
	$resume->query_until(qr/go/, "\\echo go\nSELECT weir.resume('a');\n");
	$node->poll_query_until('postgres',
		"SELECT count(*) = 1 FROM pg_locks WHERE relation = 'a'::regclass AND NOT granted") or die;
	$lock->query_safe('SELECT pg_advisory_unlock_all()');
	$resume->query('SELECT 1');
	like($resume->{stderr}, qr/"a" is not running.*"lost"/s, 'race: resume comes too late');
	$resume->quit;
	is(state_of('a'), 'lost', 'race: lost');
	sql('REFRESH MATERIALIZED VIEW a');
	weir_wait($node);
	is(state_of('a'), 'running', 'race: and rebuilt');

	# resume() first: it is not given up
	$prepare->('retention-marked=error');
	my $first = $node->background_psql('postgres');
	$first->query_safe('BEGIN');
	$first->query_safe(q{SELECT weir.resume('a')});
	sql(q{ALTER TABLE s SET (retention = '1 us')});
	trim();
	is(state_of('a'), 'paused', 'race: somebody is about to resume it');
	is(sql('SELECT count(*) >= 3000 FROM s'), 't', 'race: nothing goes');
	$first->query_safe('COMMIT');
	$first->quit;
	weir_wait($node);
	is(sql('SELECT sum(n) FROM a') - $counted, '3000', 'race: resumed, it has all');
	sql('ALTER SYSTEM RESET weir.debug_points');
	sql('SELECT pg_reload_conf()');
	$lock->quit;
}

weir_log_is_clean($node);
$node->stop;
done_testing();
