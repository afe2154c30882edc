# A view that goes from one worker to another: streams are dealt out in turn, so
# that those behind one that has lost its views change hands.  What the one has
# begun with a view, a failure or the swap of a rebuild, the other goes on from.
use strict;
use warnings;

use lib 'test/tap';

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(usleep);
use WeirTest;

my $node = weir_node('moves', conf => "weir.max_workers = 2\nrestart_after_crash = off\n");

sub sql { return $node->safe_psql('postgres', $_[0]) }

sub create
{
	my ($i) = @_;
	return "CREATE MATERIALIZED VIEW v$i USING continuous AS SELECT k, count(*) AS n FROM s$i GROUP BY k;\n";
}

sub worker_of
{
	my ($view) = @_;
	return sql("SELECT pid FROM weir.workers WHERE '$view'::regclass = ANY (views)");
}

# v2 and v3 change places when v1 goes or comes.  The workers have heard of it
# once v3 has another.
sub move
{
	my ($sql) = @_;
	my $pid = worker_of('v3');

	sql($sql);
	ok($node->poll_query_until('postgres',
		"SELECT count(*) = 1 FROM weir.workers WHERE 'v3'::regclass = ANY (views) AND pid <> $pid"), $sql);
}

sql('CREATE ROLE one; GRANT CREATE, USAGE ON SCHEMA public TO one');
for my $i (1 .. 3)
{
	sql("CREATE TABLE s$i (k int) USING stream; GRANT SELECT, TRIGGER ON s$i TO one; INSERT INTO s$i SELECT i % 3 FROM generate_series(1, 10) i;"
		  . create($i));
}
sql('ALTER MATERIALIZED VIEW v2 OWNER TO one');
weir_wait($node);
sql('SELECT weir.checkpoint()');
isnt(worker_of('v2'), worker_of('v3'), 'there are two workers');

# Its first worker has found that it cannot be opened.
sql('REVOKE TRIGGER ON s2 FROM one');
sql('SELECT pg_terminate_backend(pid, 60000) FROM weir.workers');
ok($node->poll_query_until('postgres',
	"SELECT state = 'failed' AND error ~ 'denied' FROM weir.views WHERE view = 'v2'::regclass"), 'it fails');
ok($node->poll_query_until('postgres',
	"SELECT count(*) = 1 FROM weir.workers WHERE 'v3'::regclass = ANY (views)"), 'the other runs');
move('DROP MATERIALIZED VIEW v1');
sql('GRANT TRIGGER ON s2 TO one');
sql("SELECT weir.resume('v2')");
is(sql("SELECT weir.wait_for('v2', '120 s')"), 't', 'it runs on, elsewhere');
weir_same($node, 'v2', 'SELECT k, count(*) FROM s2 GROUP BY k');

# A rebuild takes the place of its predecessor just before another worker, who has
# heard of both, opens them.
SKIP:
{
	skip 'a build without debug points', 7
	  if $node->psql('postgres', 'SHOW weir.debug_points') != 0;
	my $lock = $node->background_psql('postgres');
	my $waits = sub {
		my ($point, $n) = @_;
		return $node->poll_query_until('postgres',
			"SELECT count(*) = $n FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
			  . " AND objid = hashtext('$point')::oid");
	};

	$lock->query_safe("SELECT pg_advisory_lock(1465207378, hashtext('swap-commit'))");
	sql("ALTER SYSTEM SET weir.debug_points = 'swap-commit=wait, view-open=wait'");
	$node->reload;
	sql('REFRESH MATERIALIZED VIEW v2');
	ok($waits->('swap-commit', 1), 'the swap is about to commit');
	$lock->query_safe("SELECT pg_advisory_lock(1465207378, hashtext('view-open'))");
	sql(create(1));
	ok($waits->('view-open', 1), 'another worker is about to open the view');
	$lock->query_safe("SELECT pg_advisory_unlock(1465207378, hashtext('swap-commit'))");
	ok($waits->('view-open', 2), 'the first has swapped, and let it go');
	$lock->query_safe('SELECT pg_advisory_unlock_all()');
	$lock->quit;
	weir_wait($node, 'it runs on');
	sql("ALTER SYSTEM RESET weir.debug_points");
	$node->reload;
	sql('INSERT INTO s2 SELECT i % 3 FROM generate_series(1, 10) i');
	weir_wait($node, 'and consumes');
	weir_same($node, 'v2', 'SELECT k, count(*) FROM s2 GROUP BY k', 'rebuilt: v2 equals its query');
	is(sql("SELECT count(*) FROM weir.view_position WHERE view = 'v2'::regclass"), '1', 'of one generation');
}
weir_log_is_clean($node);
$node->stop;
done_testing();
