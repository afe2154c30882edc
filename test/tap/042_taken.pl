# A worker that is cancelled, or fails, while it looks at the keys of which windows
# are to be closed or forgotten: each window becomes one row all the same, and what
# nobody needs any more is forgotten.  A key is in the worker's hands for some time,
# as long as a snapshot needs its windows in memory, and comes into them again with
# each row.
use strict;
use warnings;

use lib 'test/tap';

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(usleep);
use WeirTest;

use constant KEYS => 20;

my $node = weir_node('taken', conf => "weir.checkpoint_interval = '1h'\nlog_min_messages = debug1\n");
plan skip_all => 'a build without debug points'
  if $node->psql('postgres', 'SHOW weir.debug_points') != 0;

my %query = (
	counts => 'SELECT k, window_start, window_end, count(*) AS n, sum(v) AS s FROM %s, count_window(2)'
	  . ' GROUP BY k, window_start, window_end',
	sessions => "SELECT k, window_start, window_end, count(*) AS n, sum(v) AS s FROM %s, session(ts, '5 s')"
	  . ' GROUP BY k, window_start, window_end',
	lasting => "SELECT k, window_start, window_end, count(*) AS n, sum(v) AS s FROM %s, session(ts, '5 s')"
	  . ' GROUP BY k, window_start, window_end');

sub sql { return $node->safe_psql('postgres', $_[0]) }

sub points
{
	my ($points) = @_;

	sql("ALTER SYSTEM SET weir.debug_points = '$points'");
	$node->reload;
	return;
}

# A checkpoint that is cancelled is made again; an error fails the view.
sub go_on
{
	ok(weir_go_on($node), $_[0]);
	sql('SELECT weir.checkpoint()');
	return;
}

# Two rows of each key, in a minute of its own; those of the minutes before are
# final then.
my $minute = 0;

sub rows
{
	my ($keys) = @_;

	$minute++;
	sql("INSERT INTO s SELECT i % $keys, i, '2026-01-01Z'::timestamptz + $minute * interval '1 min'"
		  . " + i / $keys * interval '1 s' FROM generate_series(0, 2 * $keys - 1) i");
	sql("SET client_min_messages = error; SELECT weir.wait_for(NULL, '120 s')");
	return;
}

# A key whose sessions are in the heap, and too old to be joined, is forgotten.
sub forgotten
{
	ok( $node->poll_query_until('postgres', q{
		SELECT bool_and(groups = 1) FROM weir.views WHERE view IN ('sessions'::regclass, 'lasting'::regclass)}),
		"$_[0]: keys are forgotten") or die sql("TABLE weir.views");
	return;
}

sub exact
{
	my ($what) = @_;

	go_on("$what: all is consumed");
	foreach my $view (sort keys %query)
	{
		my $query = sprintf($query{$view}, 's');

		# a view of final rows has neither the last window of a key nor half of one
		$query = "SELECT * FROM ($query) q WHERE n = 2" if $view eq 'counts';
		$query = "SELECT * FROM ($query) q WHERE window_end <= weir.watermark('s')" if $view eq 'sessions';
		weir_same($node, $view, $query, "$what: $view");
	}
	return;
}

sql(<<"SQL");
CREATE TABLE s (k int, v int, ts timestamptz NOT NULL) USING stream WITH (event_time = ts, watermark_delay = '10 s');
CREATE MATERIALIZED VIEW counts USING continuous WITH (emit = final) AS @{[ sprintf($query{counts}, 's') ]};
CREATE MATERIALIZED VIEW sessions USING continuous WITH (emit = final) AS @{[ sprintf($query{sessions}, 's') ]};
CREATE MATERIALIZED VIEW lasting USING continuous AS @{[ sprintf($query{lasting}, 's') ]};
SQL

foreach my $point ('spans-taken', 'spans-trimmed')
{
	foreach my $action ('error', 'cancel')
	{
		foreach my $hit (1 .. 3)
		{
			my $what = "$point, $action $hit";
			my $text = $action eq 'error' ? 'raised an error' : 'cancels';
			my $offset = -s $node->logfile;

			# its snapshot needs the windows of before in memory
			my $snapshot = $node->background_psql('postgres');
			$snapshot->query_safe('BEGIN ISOLATION LEVEL REPEATABLE READ');
			$snapshot->query_safe('SELECT count(*) FROM sessions');
			rows(KEYS);
			sql('SELECT weir.checkpoint()');
			rows(KEYS);
			points("$point=$action\@$hit");
			if ($point eq 'spans-trimmed')
			{
				rows(1) for 1, 2;
				sql('SELECT weir.checkpoint()');
				$snapshot->query_safe('COMMIT');
			}
			for (1 .. 1000)
			{
				last if slurp_file($node->logfile, $offset) =~ /debug point "$point" $text/;
				if ($point eq 'spans-taken') { rows(KEYS); sql('SELECT weir.checkpoint()') }
				else                         { usleep(50_000) }
			}
			like(slurp_file($node->logfile, $offset), qr/debug point "$point" $text/, $what);
			$snapshot->query_safe('COMMIT') if $point eq 'spans-taken';
			$snapshot->quit;
			points('');
			exact($what);
			forgotten($what) if $point eq 'spans-trimmed';
		}
	}
}

exact('at the end');
# A key that is forgotten, and comes again in other bytes: after a restart, when the
# checkpoint has both, it is one key.
sql(<<'SQL');
CREATE TABLE n (k numeric, ts timestamptz NOT NULL) USING stream WITH (event_time = ts, watermark_delay = '0 s');
CREATE MATERIALIZED VIEW nv USING continuous AS
  SELECT k, window_start, window_end, count(*) AS n FROM n, session(ts, '5 s') GROUP BY k, window_start, window_end;
SQL
my $numbers = sub {
	sql('INSERT INTO n VALUES ' . join(', ', map { "($_->[0], '2026-01-01 $_->[1]Z')" } @_));
	weir_wait($node, 'numbers');
	sql('SELECT weir.checkpoint()');
};
$numbers->(map { [ "$_.0", '12:00:00' ] } 1 .. KEYS);
$numbers->([ 0, '12:10:00' ]);
ok( $node->poll_query_until('postgres', q{SELECT groups = 1 FROM weir.views WHERE view = 'nv'::regclass}),
	'all but one are forgotten');
$numbers->(map { [ "$_.00", '12:10:01' ] } 1 .. KEYS);
$node->restart;
$numbers->(map { [ "$_.000", '12:10:03' ] } 1 .. KEYS);
weir_same($node, 'nv',
	"SELECT k, window_start, window_end, count(*) FROM n, session(ts, '5 s') GROUP BY k, window_start, window_end",
	'a key is one');
$numbers->([ 0, '12:20:00' ]);
weir_same($node, 'nv',
	"SELECT k, window_start, window_end, count(*) FROM n, session(ts, '5 s') GROUP BY k, window_start, window_end",
	'and its session is one row');

weir_log_is_clean($node);
done_testing();
