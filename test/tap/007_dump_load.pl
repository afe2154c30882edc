# A parallel dump while events come, checkpoints are written, VACUUM and REFRESH
# run: in the copy each view equals its query over a heap that got the same rows
# in the same transactions; so it does when the copy is written over another,
# when a whole cluster is copied, and when events go on.

use strict;
use warnings;

use lib 'test/tap';
use IPC::Run;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use WeirTest;

my $node = weir_node('dump_load', conf => "max_worker_processes = 40\nweir.max_workers = 1");
my $dir = PostgreSQL::Test::Utils::tempdir;

# The log of "trimmed" keeps nothing, that of "held" everything.
$node->safe_psql(
	'postgres', q{
	CREATE SEQUENCE ids CACHE 10;
	CREATE TABLE trimmed (id bigint, k int, v bigint, ts timestamptz NOT NULL)
		USING stream WITH (event_time = ts, watermark_delay = '1 s', retention = '1 us');
	CREATE TABLE held (id bigint, k int, v bigint, ts timestamptz NOT NULL)
		USING stream WITH (event_time = ts, watermark_delay = '1 s');
	CREATE TABLE twin (id bigint, k int, v bigint, ts timestamptz NOT NULL);
	CREATE MATERIALIZED VIEW tumbling USING continuous WITH (late_table = 'late_tumbling') AS
		SELECT window_start, k, count(*) AS n, sum(v) AS s, max(id) AS m
		FROM trimmed, tumble(ts, '1 s') GROUP BY window_start, k;
	CREATE INDEX ON tumbling (window_start);
	CREATE MATERIALIZED VIEW sessions USING continuous WITH (late_table = 'late_sessions') AS
		SELECT window_start, window_end, k, count(*) AS n, sum(v) AS s
		FROM trimmed, session(ts, '20 ms') GROUP BY window_start, window_end, k;
	CREATE MATERIALIZED VIEW keyed USING continuous AS
		SELECT k, count(*) AS n, sum(v) AS s, avg(v) AS a, count(DISTINCT v) AS d FROM trimmed GROUP BY k;
	CREATE MATERIALIZED VIEW ids_seen USING continuous AS SELECT id % 1000 AS i, count(*) AS n FROM trimmed GROUP BY 1;
	CREATE MATERIALIZED VIEW rebuilt USING continuous AS
		SELECT k, v, count(*) AS n, min(ts) AS f, max(id) AS m FROM held GROUP BY k, v;
	CREATE MATERIALIZED VIEW hopping USING continuous WITH (allowed_lateness = '1 h') AS
		SELECT window_start, k, count(*) AS n, sum(v) AS s
		FROM held, hop(ts, '1 s', '3 s') GROUP BY window_start, k;
});

my %queries = (
	tumbling => q{SELECT window_start, k, count(*), sum(v), max(id)
		FROM (SELECT id, k, v, ts FROM twin EXCEPT ALL SELECT id, k, v, ts FROM late_tumbling) t,
			tumble(ts, '1 s') GROUP BY window_start, k},
	sessions => q{SELECT window_start, window_end, k, count(*), sum(v)
		FROM (SELECT id, k, v, ts FROM twin EXCEPT ALL SELECT id, k, v, ts FROM late_sessions) t,
			session(ts, '20 ms') GROUP BY window_start, window_end, k},
	keyed => 'SELECT k, count(*), sum(v), avg(v), count(DISTINCT v) FROM twin GROUP BY k',
	ids_seen => 'SELECT id % 1000, count(*) FROM twin GROUP BY 1',
	rebuilt => 'SELECT k, v, count(*), min(ts), max(id) FROM twin GROUP BY k, v',
	hopping => q{SELECT window_start, k, count(*), sum(v) FROM twin, hop(ts, '1 s', '3 s') GROUP BY window_start, k});

# All views of a database equal their queries; it has what the dump had.
sub check
{
	my ($on, $db, $what) = @_;

	is($on->safe_psql($db, q{SELECT weir.wait_for(timeout => '120 s')}), 't', "$what: views have caught up");
	for my $round ('', ', checkpointed')
	{
		my $sql = '';

		for my $view (sort keys %queries)
		{
			# only a checkpoint brings late events where they can be read
			next if $round eq '' && $queries{$view} =~ /late_/;
			$sql .= qq{SELECT '$view', count(*) FROM (
				(SELECT * FROM $view EXCEPT ALL ($queries{$view})) UNION ALL
				(($queries{$view}) EXCEPT ALL SELECT * FROM $view)) d HAVING count(*) > 0;\n};
		}
		$sql .= q{SELECT 'held', count(*) FROM (
			(SELECT * FROM held EXCEPT ALL SELECT * FROM twin) UNION ALL (SELECT * FROM twin EXCEPT ALL SELECT * FROM held)) d
			HAVING count(*) > 0;
			SELECT view, state, error FROM weir.views WHERE state <> 'running' OR error IS NOT NULL;};
		is($on->safe_psql($db, $sql), '', "$what$round: every view equals its query");
		$on->safe_psql($db, 'SELECT weir.checkpoint()') if $round eq '';
	}
	return;
}

# ---- load ----

my %scripts = (
	# now() is the same for all rows of a transaction
	write => q{
		\set k random(1, 20)
		\set v random(1, 100)
		\set back random(0, 3000)
		\set end random(1, 10)
		BEGIN;
		WITH t AS (INSERT INTO twin SELECT nextval('ids'), :k + i, :v, now() - :back * i * interval '0.5 ms'
			FROM generate_series(0, 2) i RETURNING *),
			h AS (INSERT INTO held SELECT * FROM t)
			INSERT INTO trimmed SELECT * FROM t;
		SAVEPOINT a;
		WITH t AS (INSERT INTO twin VALUES (nextval('ids'), :k, 0, now()) RETURNING *),
			h AS (INSERT INTO held SELECT * FROM t)
			INSERT INTO trimmed SELECT * FROM t;
		\if :end > 5
			ROLLBACK TO a;
		\endif
		\if :end = 1
			ROLLBACK;
		\else
			COMMIT;
		\endif
	},
	checkpoint => qq{SELECT weir.checkpoint();\n\\sleep 200 ms\n},
	vacuum => qq{VACUUM trimmed, held, weir.view_state, weir.view_position;\n\\sleep 100 ms\n});
append_to_file("$dir/$_.sql", $scripts{$_}) for keys %scripts;

my @load;
# as many writers at a time, but not more rows than the queries are soon through with
for my $l ([ 'write', 4, '-R', 150 ], [ 'checkpoint', 1 ], [ 'vacuum', 1 ])
{
	my ($name, $clients, @rate) = @$l;
	my %p = (name => $name, out => '');

	$p{run} = IPC::Run::start(
		[ 'pgbench', '-n', '-c', $clients, '-t', 1000000000, @rate, '-f', "$dir/$name.sql", $node->connstr('postgres') ],
		'>', \$p{out}, '2>&1');
	push @load, \%p;
}

my $rows = 'SELECT count(*) FROM twin';

sub load_goes_on
{
	my $before = $node->safe_psql('postgres', $rows);

	ok($node->poll_query_until('postgres', "SELECT ($rows) > $before + 300"), "$_[0]: events come");
	return;
}

ok($node->poll_query_until('postgres', q{SELECT count(*) > 5 AND (SELECT count(*) > 0 FROM late_tumbling) FROM tumbling
	WHERE weir.is_final('tumbling', window_start + interval '1 s')}), 'windows have become final, and events were late');

# One rebuild may begin before the dump's snapshot, another while it runs.
sub dump_it
{
	my ($to) = @_;
	my $out = '';
	my $before = $node->safe_psql('postgres', $rows);

	load_goes_on($to);
	$node->safe_psql('postgres', 'REFRESH MATERIALIZED VIEW rebuilt');
	my $dump = IPC::Run::start(
		[ 'pg_dump', '-Fd', '-j4', '-f', "$dir/$to", '-d', $node->connstr('postgres') ], '>', \$out, '2>&1');
	$node->safe_psql('postgres', 'REFRESH MATERIALIZED VIEW hopping');
	ok(IPC::Run::finish($dump), "$to: pg_dump -Fd -j4");
	is($out, '', "$to: and says nothing");
	load_goes_on("$to, after the dump");
	return $before;
}

my $before = dump_it('first');
$node->safe_psql('postgres', 'CREATE DATABASE copy');
$node->command_ok([ 'pg_restore', '-j2', '--exit-on-error', '-d', $node->connstr('copy'), "$dir/first" ], 'pg_restore');
cmp_ok($node->safe_psql('copy', $rows), '>=', $before, 'the dump has what was before it');
check($node, 'copy', 'copy');

my $all = '';
my $dumpall = IPC::Run::start([ 'pg_dumpall', '-f', "$dir/all.sql", '-d', $node->connstr('postgres') ], '>', \$all, '2>&1');
ok(IPC::Run::finish($dumpall), 'pg_dumpall');
is($all, '', 'and says nothing');
$before = dump_it('second');

for my $l (@load)
{
	ok($l->{run}->pumpable, "$l->{name}: went on to the end") or diag($l->{out});
	$l->{run}->signal('TERM');
	IPC::Run::finish($l->{run});
	unlike($l->{out}, qr/ERROR|FATAL|aborted/, "$l->{name}: no error");
}
check($node, 'postgres', 'source');
cmp_ok($node->safe_psql('postgres', 'SELECT count(*) FROM trimmed'), '<',
	$node->safe_psql('postgres', $rows) / 2, 'the log was trimmed');

# ---- over what is there ----

is($node->safe_psql('copy', 'SELECT (SELECT count(*) FROM trimmed) < (SELECT sum(n) FROM keyed)'), 't',
	'the copy has state of events that its log has not');
$node->command_ok([ 'pg_restore', '--clean', '--if-exists', '--exit-on-error', '-d', $node->connstr('copy'), "$dir/second" ],
	'pg_restore --clean --if-exists over it');
cmp_ok($node->safe_psql('copy', $rows), '>=', $before, 'it has what the second dump has');
check($node, 'copy', '--clean');

# ---- another cluster ----

my $other = PostgreSQL::Test::Cluster->new('dump_load_all');
$other->init(extra => [ '--no-locale', '--encoding=UTF8' ]);
$other->append_conf('postgresql.conf', slurp_file('test/pg_weir.conf') . "max_worker_processes = 40\nweir.max_workers = 1\n");
$other->start;
# the superuser is there
my ($out, $err);
IPC::Run::run([ 'psql', '-X', '-q', '-f', "$dir/all.sql", '-d', $other->connstr('postgres') ], '>', \$out, '2>', \$err);
is($err =~ s/^psql:\S+ ERROR:  role "\w+" already exists\n//mr, '', 'the script of pg_dumpall');
check($other, $_, "pg_dumpall, $_") for 'postgres', 'copy';

# ---- what comes after ----

# The copies miss what the source got after the snapshot, and then all get more.
my @copies = ([ $node, 'copy', 'copy' ], [ $other, 'postgres', 'other cluster' ]);
for my $c (@copies)
{
	my ($on, $db, $name) = @$c;
	my $have = $on->safe_psql($db, 'COPY (SELECT id FROM twin) TO STDOUT');

	append_to_file("$dir/have", "$have\n");
	my $rest = $node->safe_psql('postgres', qq{
		CREATE TEMP TABLE have (id bigint); COPY have FROM '$dir/have';
		COPY (SELECT * FROM twin WHERE id NOT IN (SELECT id FROM have) ORDER BY id) TO STDOUT});
	unlink "$dir/have";
	isnt($rest, '', "$name misses some");
	append_to_file("$dir/rest", "$rest\n");
	$on->safe_psql($db, qq{BEGIN; COPY trimmed FROM '$dir/rest'; COPY held FROM '$dir/rest'; COPY twin FROM '$dir/rest'; COMMIT});
	unlink "$dir/rest";
	check($on, $db, "what $name missed");
}
my $same = join ' UNION ALL ', map { "SELECT '$_' || v::text FROM $_ v" } qw(keyed ids_seen rebuilt hopping twin held);
my $facts = "SELECT count(*), md5(string_agg(x, ';' ORDER BY x COLLATE \"C\")) FROM ($same) x(x)";
# after all there is, so that none is late anywhere
for my $c ([ $node, 'postgres', 'source' ], @copies)
{
	$c->[0]->safe_psql($c->[1], q{
		BEGIN;
		INSERT INTO twin SELECT 1000000000 + i, i % 23, i, (SELECT max(ts) FROM twin) + interval '1 minute' + i * interval '7 ms'
			FROM generate_series(1, 2000) i;
		INSERT INTO held SELECT * FROM twin WHERE id > 1000000000;
		INSERT INTO trimmed SELECT * FROM twin WHERE id > 1000000000;
		COMMIT});
	check($c->[0], $c->[1], "further events, $c->[2]");
}
my $source = $node->safe_psql('postgres', $facts);
is($_->[0]->safe_psql($_->[1], $facts), $source, "further events: $_->[2] is as the source") for @copies;

weir_log_is_clean($_) for $node, $other;
$other->stop;
$node->stop;
done_testing();
