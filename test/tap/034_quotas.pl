# What one role can take from the others: state memory and views have limits per
# role, which only a superuser sets.
use strict;
use warnings;

use lib 'test/tap';

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use WeirTest;

my $node = weir_node('quotas', conf => <<'CONF');
weir.state_memory = '24MB'
weir.checkpoint_interval = '1h'
CONF

sub sql { return $node->safe_psql('postgres', $_[0]) }

# As another role: its output, or SQLSTATE and message.
sub sql_as
{
	my ($role, $query) = @_;
	my ($rc, $out, $err) = $node->psql('postgres', "\\set VERBOSITY verbose\n$query",
		extra_params => [ '-U', $role ], on_error_stop => 1);

	return $out if $rc == 0;
	return $err =~ /ERROR:  (.*)/ ? $1 : $err;
}

sub error_of
{
	my ($view) = @_;

	$node->poll_query_until('postgres', "SELECT state = 'failed' FROM weir.views WHERE view = '$view'::regclass");
	return sql("SELECT error FROM weir.views WHERE view = '$view'::regclass");
}

my $full = 'state memory of continuous views of role "evil" is exhausted';

sql(q{
	CREATE ROLE alice LOGIN; CREATE ROLE evil LOGIN; CREATE ROLE other LOGIN;
	GRANT CREATE ON SCHEMA public TO alice, evil, other;
	GRANT evil, other TO alice;
	CREATE TABLE s (k int, v bigint, ts timestamptz NOT NULL)
		USING stream WITH (event_time = ts, watermark_delay = '1 minute');
	CREATE TABLE t (k int) USING stream;
	GRANT SELECT, INSERT, TRIGGER ON s, t TO alice, evil, other;
	ALTER ROLE evil SET weir.max_role_memory = '4MB';
	ALTER ROLE evil SET weir.max_role_views = 3;
});

# ---- who may set them ----
for my $name ('weir.max_role_memory', 'weir.max_role_views')
{
	like(sql_as('evil', "SET $name = -1"), qr/^42501/, "$name: not in a session");
	like(sql_as('evil', "ALTER ROLE evil SET $name = -1"), qr/^42501/, "$name: not for oneself");
	like(sql_as('evil', "ALTER ROLE evil RESET $name"), qr/^42501|^$/, "$name: no way round");
	is(sql_as('evil', "SHOW $name"), $name =~ /memory/ ? '4MB' : '3', "$name: it stays");
}

# ---- memory ----
sql_as('evil', q{
	CREATE MATERIALIZED VIEW hog USING continuous AS SELECT v, count(*) AS n FROM s GROUP BY v;
	CREATE MATERIALIZED VIEW small USING continuous AS SELECT k % 5 AS k, count(*) AS n FROM s GROUP BY 1;
});
sql_as('alice', q{CREATE MATERIALIZED VIEW many USING continuous AS SELECT v, count(*) AS n FROM s GROUP BY v});
my $feed = sub {
	my ($from, $to) = @_;
	sql("INSERT INTO s SELECT i % 100, i, '2020-01-01'::timestamptz + i * interval '1 ms' FROM generate_series($from, $to) i");
};
$feed->(1, 10000);
weir_wait($node, 'there is room for all');
$feed->($_ * 10000 + 1, $_ * 10000 + 10000) for 1 .. 5;
is(error_of('hog'), $full, 'the hog has what its role may take');
is(sql("SELECT weir.wait_for('many') AND weir.wait_for('small')"), 't', 'others go on, a small one of the same role too');
weir_same($node, 'many', 'SELECT v, count(*) FROM s GROUP BY v', 'with more than that');
weir_same($node, 'small', 'SELECT k % 5, count(*) FROM s GROUP BY 1', 'the small one');
cmp_ok(sql("SELECT sum(state_bytes) FROM weir.views WHERE view = 'many'::regclass"), '>', 4 * 1024 * 1024, 'which is more');
cmp_ok(sql("SELECT coalesce(sum(state_bytes), 0) FROM weir.views WHERE owner = 'evil'::regrole"), '<=', 4 * 1024 * 1024, 'the role is within its limit');

# two views of the role share the limit
sql_as('evil', q{
	DROP MATERIALIZED VIEW hog;
	CREATE TABLE u (v bigint) USING stream;
	CREATE MATERIALIZED VIEW first USING continuous AS SELECT v, count(*) AS n FROM u GROUP BY v;
	INSERT INTO u SELECT generate_series(1, 15000);
	SELECT weir.wait_for('first');
	CREATE MATERIALIZED VIEW second USING continuous AS SELECT v, max(v) AS n FROM u GROUP BY v;
});
sql_as('evil', 'INSERT INTO u SELECT generate_series(15001, 24000)');
ok($node->poll_query_until('postgres', "SELECT count(*) > 0 FROM weir.views WHERE owner = 'evil'::regrole AND state = 'failed' AND error = '$full'"),
	'both together have no more than one');
sql('ALTER ROLE evil IN DATABASE postgres SET weir.max_role_memory = -1');
ok(weir_go_on($node), 'a higher limit counts with weir.resume()');
weir_same($node, 'second', 'SELECT v, max(v) FROM u GROUP BY v');
sql_as('evil', 'DROP TABLE u CASCADE');
sql('ALTER ROLE evil IN DATABASE postgres RESET weir.max_role_memory');

# windows that close make room, long before the memory of all is scarce
sql_as('evil', q{CREATE TABLE w (k int, v bigint, ts timestamptz NOT NULL)
	USING stream WITH (event_time = ts, watermark_delay = '1 second');
	CREATE MATERIALIZED VIEW windows USING continuous AS
	SELECT window_start, v, count(*) AS n FROM w, tumble(ts, '1 second') GROUP BY window_start, v});
weir_wait($node);
sql("INSERT INTO w SELECT i % 100, i, '2020-01-02'::timestamptz + i * interval '20 ms' FROM generate_series($_ * 3000 + 1, $_ * 3000 + 3000) i") for 1 .. 40;
weir_wait($node, 'windows that have closed make room');
is(sql("SELECT state FROM weir.views WHERE view = 'windows'::regclass"), 'running', 'so it does not fail');
weir_same($node, 'windows', q{SELECT window_start, v, count(*) FROM w, tumble(ts, '1 second') GROUP BY window_start, v}, 'a view with windows');
$node->stop('immediate');
$node->start;
weir_wait($node, 'the same by replay');
weir_same($node, 'windows', q{SELECT window_start, v, count(*) FROM w, tumble(ts, '1 second') GROUP BY window_start, v}, 'after a crash');

# ---- number of views ----
my $another = 'CREATE MATERIALIZED VIEW more USING continuous AS SELECT count(*) FROM t';
is(sql_as('evil', 'CREATE MATERIALIZED VIEW third USING continuous AS SELECT count(*) FROM t'), '', 'the third view');
is(sql_as('evil', $another), '53400: role "evil" has too many continuous views', 'the fourth');
is(sql_as('alice', "SET ROLE evil; $another"), '53400: role "evil" has too many continuous views', 'made by a member of the role');
is(sql_as('alice', "$another; ALTER MATERIALIZED VIEW more OWNER TO evil"), '53400: role "evil" has too many continuous views', 'given to the role');
is(sql_as('alice', 'ALTER MATERIALIZED VIEW more OWNER TO other'), '', 'another has room');
is(sql_as('evil', 'DROP MATERIALIZED VIEW third; CREATE MATERIALIZED VIEW again USING continuous AS SELECT count(*) FROM t'), '', 'one goes, one comes');
is(sql_as('evil', 'REFRESH MATERIALIZED VIEW small; ALTER MATERIALIZED VIEW small RENAME TO still'), '', 'what there is can be rebuilt');

# for all who have no value of their own
sql('ALTER DATABASE postgres SET weir.max_role_views = 0');
is(sql_as('other', 'CREATE MATERIALIZED VIEW no USING continuous AS SELECT count(*) FROM t'), '53400: role "other" has too many continuous views', 'a limit of the database');
sql('CREATE MATERIALIZED VIEW super USING continuous AS SELECT count(*) FROM t');
weir_wait($node, 'superusers have no limit');

weir_log_is_clean($node);
$node->stop;
done_testing();
