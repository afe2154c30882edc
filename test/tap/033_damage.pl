# One byte that has changed on disk, in the log of a stream, in a view's checkpoint
# or in a summary of the log: whoever reads it says so and names the relation, or
# the byte was of no account and the answer is exact; never is it another answer.
# REFRESH repairs a view as long as the log is whole; a summary is made anew.  (Headers of pages and tuples are for
# PostgreSQL's data checksums.)  WEIR_SPOTS: how many (60); WEIR_SEED replays.
use strict;
use warnings;

use lib 'test/tap';

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use WeirTest;

use constant STREAMS => 20;

my $spots = $ENV{WEIR_SPOTS} // 60;
my $seed  = $ENV{WEIR_SEED} // int(rand(1_000_000_000));
diag("damage: WEIR_SEED=$seed");
srand($seed);
my $node = weir_node('damage', conf => "weir.checkpoint_interval = '1h'\nautovacuum = off\n");

sub sql { return $node->safe_psql('postgres', $_[0]) }

# In a database of its own, a stream that has lost events which its view has counted.
sub gone { return $node->safe_psql('gone', $_[0]) }

# Runs are short in such a build only.
my $debug = sql(q{SELECT count(*) FROM pg_settings WHERE name = 'weir.debug_points'});

my %query = (
	grouped => 'SELECT k, count(*) AS n, sum(v) AS s, max(note) AS m FROM %s GROUP BY k',
	windows => "SELECT window_start, k, count(*) AS n, sum(v) AS s FROM %s, tumble(ts, '2 minutes') GROUP BY window_start, k",
	sessions => "SELECT window_start, window_end, k, count(*) AS n FROM %s, session(ts, '5 s') GROUP BY window_start, window_end, k",
	lists => 'SELECT k, array_agg(v ORDER BY v) AS vs, stddev(v) AS d FROM %s GROUP BY k');
my @kinds = sort keys %query;

sub made
{
	my ($name, $i, $kind) = @_;
	return "CREATE MATERIALIZED VIEW $name$i USING continuous AS " . sprintf($query{ $kinds[ $kind % 4 ] }, "s$i") . ";\n";
}

# A stream with two views behind checkpoints, and events that only the log has;
# one is larger than a page.
sub set_up
{
	my ($i) = @_;
	my $rows = sub {
		my ($from, $to) = @_;
		return "INSERT INTO s$i SELECT j % 7, j, repeat(md5(j::text), j % 4), '2026-01-01Z'::timestamptz"
		  . " + j * interval '1 s' FROM generate_series($from, $to) j;\n";
	};
	return
	    "SET weir.compression = " . ($i % 2 ? 'lz4' : 'off') . ";\n"
	  . "CREATE TABLE s$i (k int, v int, note text, ts timestamptz NOT NULL) USING stream"
	  . " WITH (event_time = ts, watermark_delay = '10 s');\n"
	  . made('a', $i, $i)
	  . made('b', $i, $i + 1)
	  . $rows->(1, 300)
	  . "INSERT INTO s$i SELECT 1, 301, 'z' || string_agg(md5(j::text), ''), '2026-01-01 00:05:01Z' FROM generate_series(1, 900) j;\n"
	  . "SELECT weir.wait_for('a$i'), weir.wait_for('b$i');\n"
	  . ($i == STREAMS ? "SELECT weir.checkpoint();\n" : '');
}

# With the event of many pages they fill runs, so that there are summaries.
my $last = 301;
sub more
{
	my ($i) = @_;
	my $at = "'2026-01-01Z'::timestamptz + interval '1 s'";

	return join('', map { "INSERT INTO s$i SELECT j % 7, j, md5(j::text), $at * j"
			  . " FROM generate_series($_ * 20 + $last + 1, $_ * 20 + $last + 20) j;\n" } 0 .. 4)
	  . "INSERT INTO s$i SELECT 1, 1, string_agg(md5(j::text), ''), $at * ($last + 101) FROM generate_series(1, 3000) j;\n"
	  . "DROP TABLE IF EXISTS t$i;\nCREATE TABLE t$i AS SELECT * FROM s$i;\n";
}

sub grow
{
	sql('SET client_min_messages = warning; ' . join '', map { more($_) } 1 .. STREAMS);
	$last += 101;
	weir_wait($node, 'grown');
	sql(join '', map { "VACUUM s$_; SELECT weir.summarize('s$_');\n" } 1 .. STREAMS);
	return;
}

# Its log is looked at when the worker starts.
my $many = 'INSERT INTO r SELECT md5(i::text) FROM generate_series(1, 1000) i;' . "\n";
sub trim
{
	my ($what, $done) = @_;

	gone($many x 3 . 'SELECT weir.wait_for(); SELECT weir.checkpoint()');
	$node->restart;
	weir_patiently($node, 'SELECT 1');
	ok($node->poll_query_until('gone', $done), $what);
	return;
}

sub refresh
{
	my ($view) = @_;
	my ($rc, $out, $err) = $node->psql('gone', "\\set VERBOSITY verbose\nREFRESH MATERIALIZED VIEW $view; SELECT weir.wait_for('$view')");

	return $err;
}
sql('CREATE DATABASE gone');
gone(q{CREATE EXTENSION pg_weir; CREATE EXTENSION pageinspect;
	CREATE TABLE r (v text) USING stream WITH (retention_size = '20 kB');
	CREATE MATERIALIZED VIEW g USING continuous AS SELECT count(*) AS n FROM r});
trim('a stream is trimmed', 'SELECT count(*) > 0 FROM weir.stream_trim');

sql(join '', map { set_up($_) } 1 .. STREAMS);
grow();
is(sql('SELECT count(DISTINCT stream) FROM weir.log_run WHERE NOT opaque'), STREAMS, 'all have summaries')
  if $debug;

# Where the bytes of rows are: [[offset, length], ...].
sub places
{
	my ($relation, $in) = @_;
	my @rows = split /\n/, $in->(qq{
		SELECT b * 8192 + lp_off + t_hoff, lp_len - t_hoff
		FROM generate_series(0, pg_relation_size('$relation') / 8192 - 1) b,
		     LATERAL heap_page_items(get_raw_page('$relation', b::int))
		WHERE lp_flags = 1 AND lp_len > t_hoff AND (t_xmax = 0 OR t_infomask & 128 <> 0)}); # or locked only

	return [ map { [ split /\|/ ] } @rows ];
}
sql('CREATE EXTENSION pageinspect');

my $round = 0;
my $base  = $node->data_dir;

# A view that cannot go on shows what it had counted until then, and says why.
sub failed
{
	return sql("SELECT count(*) FROM weir.views WHERE view = to_regclass('$_[0]') AND error IS NOT NULL");
}

sub still_failed
{
	return sql(q{SELECT string_agg(view || ': ' || error, E'\n' ORDER BY view::text) FROM weir.views WHERE error IS NOT NULL});
}

# PostgreSQL does not know whose it is that is not under its number.
my $toast = qr/chunk number \d+ for toast value/;

# What the number of its format is damaged in looks like what a newer version wrote.
my $newer = qr/ERROR:  0A000: log of stream "s\d+" has a chunk of unknown format/;

# What a query says: its rows, or an error that must be one of ours and name it.
sub differs
{
	my ($view, $i, $kind) = @_;
	my $query = $kind < 0 ? "TABLE t$i" : sprintf($query{ $kinds[ $kind % 4 ] }, "t$i");
	my ($rc, $out, $err) = $node->psql('postgres',
		"\\set VERBOSITY verbose\nSELECT (SELECT count(*) FROM (TABLE $view EXCEPT ALL ($query)) x)"
		  . " + (SELECT count(*) FROM (($query) EXCEPT ALL TABLE $view) y)");

	return $out eq '0' || failed($view) ? '' : "$out rows of $view differ: "
	  . sql("SELECT state, lag_events, error FROM weir.views WHERE view = to_regclass('$view')") if $rc == 0;
	return "$view: $err" unless $err =~ /ERROR:  XX001: .*("$view"|$toast)|$newer/;
	return '';
}

# A query by time passes over what a summary says is of another; nothing is late.
sub differs_in_time
{
	my ($i)  = @_;
	my $from = int(rand($last));
	my $to   = $from + int(rand(100));
	my $span = "ts BETWEEN '2026-01-01Z'::timestamptz + interval '$from s' AND '2026-01-01Z'::timestamptz + interval '$to s'";
	my ($rc, $out, $err) = $node->psql('postgres',
		"\\set VERBOSITY verbose\nSELECT * FROM (SELECT count(*), sum(v) FROM s$i WHERE $span) x"
		  . " EXCEPT ALL SELECT count(*), sum(v) FROM t$i WHERE $span");

	return $out eq '' ? '' : "s$i from $from to $to differs: $out" if $rc == 0;
	return $err =~ /ERROR:  XX001: .*"s$i"|$newer/ ? '' : "s$i: $err";
}

# Change a byte in each file; the server is down.
sub change
{
	my (@changes) = @_;
	foreach my $c (@changes)
	{
		open(my $f, '+<:raw', "$base/$c->{file}") or die "$c->{file}: $!";
		seek($f, $c->{offset}, 0);
		read($f, my $byte, 1);
		seek($f, $c->{offset}, 0);
		print $f chr(ord($byte) ^ $c->{mask});
		close($f);
	}
}

sub pick
{
	my ($relation) = @_;
	my $in     = $relation eq 'weir.stream_trim' ? \&gone : \&sql;
	my $places = places($relation, $in);
	my $p      = $places->[ int(rand(@$places)) ] // die "no rows in $relation";

	return {
		name   => $relation,
		file   => $in->("SELECT pg_relation_filepath('$relation')"),
		offset => $p->[0] + int(rand($p->[1])),
		mask   => 1 << int(rand(8))
	};
}

# The state is read from the disk, and the log behind the checkpoints.
sub crash_with
{
	my (@changes) = @_;

	sql('CHECKPOINT');
	$node->stop('immediate');
	change(@changes);
	$node->start;
	weir_patiently($node, 'SELECT 1');
}

my $consumed = q{
	SELECT bool_and(error IS NOT NULL OR state = 'running' AND coalesce(lag_events = 0, false)) FROM weir.views};
my (@wrong, $errors, $done, $repaired);
($errors, $done, $repaired) = (0, 0, 0);
while ($done < $spots)
{
	# the log of each stream, one byte; then the views' own tables
	my @changes;
	my $of_log = $round++ % 2 == 0;

	if ($of_log) { @changes = map { pick("s$_") } 1 .. STREAMS }
	else
	{
		my %at;
		grow() if $round > 2;
		for my $relation (qw(weir.view_position weir.view_state weir.view_state weir.view_position weir.stream_trim),
			$debug ? ('weir.log_run') x 6 : ())
		{
			my $c = pick($relation);
			push @changes, $c unless $at{"$c->{file} $c->{offset}"}++;
		}
	}
	$done += @changes;
	my $what = join ', ', map { "$_->{name} at $_->{offset} ^ $_->{mask}" } @changes;
	crash_with(@changes);
	if (!$node->poll_query_until('postgres', $consumed))
	{
		push @wrong, "hangs: $what: " . sql('SELECT view, state, error FROM weir.views');
	}

	for my $i (1 .. STREAMS)
	{
		push @wrong, grep { $_ ne '' } differs("s$i", $i, -1), differs("a$i", $i, $i), differs("b$i", $i, $i + 1),
		  differs_in_time($i);
	}
	my $failed = sql("SELECT string_agg(view::text, ' ') FROM weir.views WHERE error IS NOT NULL");
	for my $view (split / /, $failed)
	{
		$errors++;
		my $error = sql("SELECT error FROM weir.views WHERE view = '$view'::regclass");
		my $i = substr($view, 1);
		push @wrong, "$view: $error ($what)" unless $error =~ /"[abs]$i"|$toast/;
	}
	if ($of_log)
	{
		# back again: then everything is as it was
		$node->stop('immediate');
		change(@changes);
		$node->start;
		weir_patiently($node, 'SELECT 1');
		sql("SELECT weir.resume(view) FROM weir.views WHERE state = 'failed'");
	}
	else
	{
		sql("REFRESH MATERIALIZED VIEW $_"), $repaired++ for split / /, $failed;
	}
	weir_wait($node, "round $round: repaired " . ($of_log ? 'log' : "views $failed"));
	push @wrong, grep { $_ ne '' } still_failed();
	for my $i (1 .. STREAMS)
	{
		push @wrong, grep { $_ ne '' } differs("a$i", $i, $i), differs("b$i", $i, $i + 1);
	}
	sql('SELECT weir.checkpoint()') if !$of_log;
	push @wrong, "g is refreshed: $_" foreach grep { !/ERROR:  55000: cannot refresh/ } refresh('g');
	push(@wrong, $what), last if @wrong;
}
is(join("\n", @wrong), "", "$done spots, $errors views stopped by them, $repaired rebuilt: none is wrong silently");
cmp_ok($errors, '>', 0, 'some were met');

# What a view has of its own position is under a checksum as well.
my %field = (
	a1 => 'position = position - 8',
	b2 => 'closed_before = closed_before - 60000000',
	a3 => "watermark = watermark + interval '1 minute'",
	b4 => 'events_in = events_in + 1',
	a5 => 'layout = NULL');
sql("UPDATE weir.view_position SET $field{$_} WHERE view = '$_'::regclass") foreach sort keys %field;
crash_with();
ok($node->poll_query_until('postgres', $consumed), 'positions are damaged: nobody hangs');
is( still_failed(),
	join("\n", map { qq{$_: checkpoint of continuous view "$_" is damaged} } sort keys %field),
	'each is noticed');
sql("REFRESH MATERIALIZED VIEW $_") foreach sort keys %field;
weir_wait($node, 'rebuilt');
is(still_failed(), '', 'none is left');
@wrong = map { grep { $_ ne '' } differs("a$_", $_, $_), differs("b$_", $_, $_ + 1) } 1 .. STREAMS;
is(join("\n", @wrong), '', 'and exact');

# Where a checkpoint is, in the row and out of it: half a GB long, a pointer into
# the memory of somebody, or one to a relation that is not there, which must not be
# followed even to delete it; and a row that says it has two thousand million groups.
my @headers = map { [ split /\|/ ] } split /\n/, sql(q{
	WITH blobs AS (
		SELECT DISTINCT ON (view, o.out)
			view::regclass, view::bigint AS oid, b * 8192 + lp_off + t_hoff AS at, o.out
		FROM generate_series(0, pg_relation_size('weir.view_state') / 8192 - 1) b,
			LATERAL heap_page_items(get_raw_page('weir.view_state', b::int)) i,
			LATERAL (SELECT get_byte(t_data, 36) = 1 AS out) o, weir.view_state s
		WHERE s.ctid = format('(%s,%s)', b, lp)::tid AND (out OR get_byte(t_data, 36) & 3 = 0)
			AND s.view IN (SELECT view FROM weir.views))
	(SELECT view, at + 36 + 3, 128, true FROM blobs b WHERE NOT out
			AND NOT EXISTS (SELECT FROM blobs o WHERE o.out AND o.view = b.view) ORDER BY oid LIMIT 1)
	UNION ALL (SELECT view, at + 36 + 1, 18 # 2, true FROM blobs WHERE out ORDER BY oid DESC LIMIT 1)
	UNION ALL (SELECT view, at + 36 + 14, 1, true FROM blobs WHERE out ORDER BY oid LIMIT 1)
	UNION ALL (SELECT view, at + 36 + 17, 64, true FROM blobs WHERE out ORDER BY oid OFFSET 1 LIMIT 1)
	UNION ALL (SELECT view, at + 32 + 3, 128, false FROM blobs b WHERE NOT out
			AND NOT EXISTS (SELECT FROM blobs o WHERE o.out AND o.view = b.view) ORDER BY oid DESC LIMIT 1)});
is(scalar @headers, 5, 'there are checkpoints in rows and out of them');
my $states = sql(q{SELECT pg_relation_filepath('weir.view_state')});
crash_with(map { { file => $states, offset => $_->[1], mask => $_->[2] } } @headers);
ok($node->poll_query_until('postgres', $consumed), 'headers are damaged: nobody hangs');
my @with = map { $_->[0] } grep { $_->[3] eq 't' } @headers;
is( still_failed(),
	join("\n", map { qq{$_: checkpoint of continuous view "$_" is damaged} } sort @with),
	'each is noticed');
my $dropped = pop @with;
sql("DROP MATERIALIZED VIEW $dropped");
is(sql(q{SELECT count(*) FROM weir.view_state WHERE view NOT IN (SELECT view FROM weir.views)}), '0',
	'one is dropped, with what it has kept');
sql("REFRESH MATERIALIZED VIEW $_") foreach sort @with;
weir_wait($node, 'rebuilt');
is(still_failed(), '', 'all of them');
sql($1 eq 'a' ? made('a', $2, $2) : made('b', $2, $2 + 1)) if $dropped =~ /(.)(\d+)/;
weir_wait($node, 'made again');

# So is a summary of the log.  Without, a worker would pass over events that no
# checkpoint has, a query over those of its time, and a dump count others; who
# makes summaries makes those anew.
SKIP:
{
	skip 'runs are short in a build with debug points only', 3 if !$debug;
	grow();
	my $runs = sql('SELECT count(*) FROM weir.log_run');
	my @lies = (
		'max_number = 1',
		"max_time = min_time - 1",
		'events = events + 1',
		'watermark = watermark + interval $$1 year$$',
		'open = $${}$$');
	sql("UPDATE weir.log_run SET $lies[$_ % 5] WHERE stream = 's$_'::regclass") for 1 .. STREAMS;
	crash_with();
	ok($node->poll_query_until('postgres', $consumed), 'summaries are damaged: nobody hangs');
	@wrong = map {
		my $i = $_;
		grep { $_ ne '' } differs("s$i", $i, -1), differs("a$i", $i, $i), differs("b$i", $i, $i + 1),
		  map { differs_in_time($i) } 1 .. 4
	} 1 .. STREAMS;
	is(join("\n", @wrong), '', 'they are not believed');
	my $latest = "'2026-01-01Z'::timestamptz + interval '1 s' * $last - interval '10 s'";
	is(sql("SELECT count(*) FROM weir.streams WHERE watermark <> $latest"), 0, 'nor is the watermark');
	sql("SELECT weir.summarize('s$_')") for 1 .. STREAMS;
	is(sql('SELECT count(*) FROM weir.log_run'), $runs, 'they are replaced');
}

# And what a stream has lost.  If it is not known, no view is rebuilt without what
# may have gone, until more has gone.
gone('UPDATE weir.stream_trim SET up_to = 1');
like(refresh('g'), qr/WARNING:  XX001: it is not known which events stream "r" has lost.*ERROR:  55000: cannot refresh/s,
	'it is not believed that little has gone');
gone('CREATE MATERIALIZED VIEW g2 USING continuous AS SELECT count(*) AS n FROM r; SELECT weir.wait_for()');
trim('more has gone', 'SELECT up_to > 1 FROM weir.stream_trim');
gone('CREATE MATERIALIZED VIEW g3 USING continuous AS SELECT count(*) AS n FROM r; SELECT weir.wait_for()');
is(refresh('g3'), '', 'what has come since can be refreshed');
like(refresh($_), qr/^(psql:[^ ]* )?ERROR:  55000: cannot refresh/, "$_ cannot") foreach 'g', 'g2';
gone('REFRESH MATERIALIZED VIEW g2 WITH NO DATA');
is(refresh('g2'), '', 'but begin anew') for 1 .. 2;
is(gone('SELECT g2.n - r.n FROM g2, (SELECT count(*) AS n FROM r) r'), 0, 'with what is left');
my $left = gone('SELECT n FROM g');
ok($left > 1000 && $left % 1000 == 0, 'nothing is lost without saying');

# A log that has lost its end, in the midst of an event or between two: what has
# been counted stays.
sql('SELECT weir.checkpoint(); CHECKPOINT');
my @files = map { sql("SELECT pg_relation_filepath('s$_')") } 1 .. STREAMS;
$node->stop;
truncate("$base/$_", int((-s "$base/$_") / 8192 * rand()) * 8192) or die "$_: $!"
  foreach @files;
$node->start;
weir_patiently($node, 'SELECT 1');
ok($node->poll_query_until('postgres', $consumed), 'the log is cut off: nobody hangs');
@wrong = map { grep { $_ ne '' } differs("a$_", $_, $_), differs("b$_", $_, $_ + 1) } 1 .. STREAMS;
is(join("\n", @wrong), "", 'views keep what they have counted');
weir_log_is_clean($node);
$node->stop;
done_testing();
