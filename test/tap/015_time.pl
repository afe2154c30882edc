# Watermarks are a matter of the log: what was judged stays judged, whatever
# restarts, and replay comes to the same.
use strict;
use warnings;

use lib 'test/tap';

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(usleep);
use WeirTest;

my $node = weir_node('time');

# The end of a stream.
my $query = q{SELECT window_start, window_end, k, count(*) AS n
  FROM s, tumble(ts, '1 minute') GROUP BY window_start, window_end, k};
$node->safe_psql('postgres', qq{
	CREATE TABLE s (k int, ts timestamptz NOT NULL) USING stream
	  WITH (event_time = ts, watermark_delay = '5 seconds');
	CREATE MATERIALIZED VIEW v USING continuous AS $query;
	INSERT INTO s SELECT i % 3, timestamptz '2026-01-01Z' + i * interval '1 s'
	  FROM generate_series(1, 600) i;
	SELECT weir.advance_watermark('s', 'infinity');
});
my $insert = "INSERT INTO s VALUES (1, '2026-01-01Z')";
my $ended = sub {
	my ($when) = @_;
	my ($ret, $out, $err) = $node->psql('postgres', "\\set VERBOSITY verbose\n$insert");
	# first of all: nobody has looked at the log yet
	like($err, qr/ERROR:  55000: stream "s" has ended/, "$when: no more events");
	weir_wait($node, "$when: caught up");
	weir_same($node, 'v', $query, "$when: exact");
	is($node->safe_psql('postgres', q{SELECT weir.watermark('s'), weir.watermark('v'),
		  (SELECT bool_and(weir.is_final('v', window_end)) FROM v), (SELECT count(*) FROM s)}),
		'infinity|infinity|t|600', "$when: all is final");
};
$ended->('ended');
$node->stop('immediate');
$node->start;
$ended->('after a crash');
$node->safe_psql('postgres', 'SELECT weir.checkpoint()');
$node->restart;
$ended->('after a restart');
weir_kill9($node);
weir_start($node);
$node->safe_psql('postgres', 'REFRESH MATERIALIZED VIEW v');
$ended->('rebuilt');
is($node->safe_psql('postgres', 'SELECT count(*) FROM ONLY v'),
	$node->safe_psql('postgres', 'SELECT count(*) FROM v'), 'and in the heap');

# A dump has the events, and with a view of the stream its end.
$node->safe_psql('postgres', 'CREATE DATABASE other');
$node->command_ok(
	[ 'pg_dump', '-Fc', '-f', $node->backup_dir . '/dump', $node->connstr('postgres') ],
	'dump of an ended stream');
$node->command_ok(
	[ 'pg_restore', '--exit-on-error', '-d', $node->connstr('other'), $node->backup_dir . '/dump' ],
	'restored');
isnt($node->psql('other', $insert), 0, 'it takes no events');
is($node->safe_psql('other', q{SELECT count(*), weir.watermark('s') FROM s}), '600|infinity',
	'it has ended there, too');
is( $node->safe_psql('other', q{SELECT weir.wait_for('v'); TABLE v ORDER BY 1, 2}),
	$node->safe_psql('postgres', q{SELECT weir.wait_for('v'); TABLE v ORDER BY 1, 2}),
	'its view has the same rows');
$node->safe_psql('postgres', 'DROP TABLE s CASCADE');

# Everything that moves W, in one log: events, late and ahead of the clock,
# heartbeats, the clock of an idle stream, changed delays.  Views that were there
# all the time, through restarts, a crash, the death of their worker, a pause,
# have judged as those do that are rebuilt from the log, and those that come new.
my %views = (
	tumbling => q{SELECT window_start, window_end, k, count(*) AS n, array_agg(i) AS is
		FROM m, tumble(ts, '1 s') GROUP BY window_start, window_end, k},
	hopping => q{SELECT window_start, window_end, k, count(*) AS n, sum(i) AS s
		FROM m, hop(ts, '1 s', '3 s') GROUP BY window_start, window_end, k},
	cumulating => q{SELECT window_start, window_end, k, count(*) AS n, array_agg(i) AS is
		FROM m, cumulate(ts, '1 s', '4 s') GROUP BY window_start, window_end, k},
	in_session => q{SELECT window_start, window_end, k, count(*) AS n, array_agg(i) AS is
		FROM m, session(ts, '700 ms') GROUP BY window_start, window_end, k},
	calendar => q{SELECT date_trunc('second', ts) AS s, date_trunc('second', ts) + '1 s' AS window_end, k, array_agg(i) AS is
		FROM m GROUP BY 1, k},
	counting => q{SELECT window_start, window_end AS e, k, count(*) AS n, array_agg(i) AS is, NULL::timestamptz AS window_end
		FROM m, count_window(3, 2) GROUP BY window_start, window_end, k},
	arriving => q{SELECT window_start, window_end, k, count(*) AS n, array_agg(i) AS is
		FROM m, tumble(now(), '40 ms') GROUP BY window_start, window_end, k},
	arriving_session => q{SELECT window_start, window_end, k, count(*) AS n, sum(i) AS s
		FROM m, session(now(), '30 ms') GROUP BY window_start, window_end, k},
	arriving_hop => q{SELECT window_start, window_end, count(*) AS n, sum(i) AS s
		FROM m, hop(now(), '40 ms', '120 ms') GROUP BY window_start, window_end});
$views{patient} = $views{tumbling};
my %options = (patient => q{WITH (allowed_lateness = '4 s')});
my $make = sub {
	my ($suffix) = @_;
	$node->safe_psql('postgres',
		join '', map { "CREATE MATERIALIZED VIEW $_$suffix USING continuous "
			  . ($options{$_} // '') . " AS $views{$_};" } sort keys %views);
};
my $base = $node->safe_psql('postgres', q{SELECT date_trunc('minute', now() - interval '1 day')});
my $i = 0;
my $put = sub {
	$node->safe_psql('postgres', 'BEGIN; '
		. join('', map { 'INSERT INTO m VALUES (' . ($i % 3) . ', ' . $i++
			  . ", timestamptz '$base' + interval '$_ s'); " } @_) . 'COMMIT');
};
my $final = sub {
	my ($view, $second, $what) = @_;
	ok($node->poll_query_until('postgres',
			"SELECT weir.is_final('$view', timestamptz '$base' + interval '$second s')"), $what);
};
my $worker_dies = sub {
	$node->safe_psql('postgres',
		'SELECT pg_terminate_backend(pid, 30000) FROM weir.workers');
};
$node->safe_psql('postgres', q{
	CREATE TABLE m (k int, i int, ts timestamptz NOT NULL) USING stream
	  WITH (event_time = ts, watermark_delay = '2 s', idle_timeout = '100 ms')});
$make->('');
$put->(0.5, 0.1, 1.5);
$put->(3.2, 0.7);
$put->(2.9, 0.9, 5.5);
$put->(0.2, 1.1, 2.2, 3.3);			# W is 3.5
# the clock, from W = 3.5
$final->('tumbling', 6, 'the clock closes a window');
$node->restart;
$put->(5.9, 3.1, 6.2, 7.5);
$node->safe_psql('postgres', q{ALTER TABLE m SET (watermark_delay = '0 s')});
$put->(7.1, 5.2, 8);
$put->(7.9, 6.5, 10.2);
$worker_dies->();
$node->safe_psql('postgres', qq{SELECT weir.advance_watermark('m', timestamptz '$base' + interval '20 s')});
$put->(19.9, 21, 17, 12);
$node->stop('immediate');
$node->start;
$node->safe_psql('postgres', q{ALTER TABLE m SET (watermark_delay = '5 s', idle_timeout = off)});
$put->(24, 21.5);
$put->(30, 25, 20.5, 18);
weir_wait($node, 'before the pause');
$node->safe_psql('postgres', q{SELECT weir.pause('tumbling'), weir.pause('arriving')});
$node->poll_query_until('postgres', q{SELECT bool_and(state = 'paused') FROM weir.views
	WHERE view IN ('tumbling'::regclass, 'arriving'::regclass)});
$put->(26, 24.5, 31);
$node->safe_psql('postgres', qq{
	ALTER TABLE m SET (watermark_delay = '1 s', idle_timeout = '50 ms');
	SELECT weir.advance_watermark('m', timestamptz '$base' + interval '28 s')});
$put->(27.5, 29.5, 30.5, 33);
$final->('hopping', 33, 'the clock again');
$node->safe_psql('postgres', q{SELECT weir.resume('tumbling'), weir.resume('arriving')});
$put->(31.5, 32.9, 33.5, 34);
weir_wait($node, 'after the pause');
# an event ahead of the clock, as its arrival: all of the day before is late
$node->safe_psql('postgres', "INSERT INTO m VALUES (0, $i, now() + interval '1 hour')");
$i++;
$put->(34.5, 40);
$node->safe_psql('postgres', "INSERT INTO m VALUES (0, $i, now() - interval '1 s'), (1, $i, now())");
$i++;
my $verdicts = sub {
	my ($view) = @_;
	weir_wait($node, "$view: caught up");
	return [ split /\n/, $node->safe_psql('postgres', qq{
		SELECT weir.checkpoint();
		SELECT 'counters', events_in, late, late_partial, watermark, final_rows
		  FROM weir.views WHERE view = '$view'::regclass;
		SELECT v.*, weir.is_final('$view', window_end) FROM $view v ORDER BY v}) ];
};
# let all windows close that the clock can close, so that nothing moves any more
weir_wait($node, 'all is there that may close');
ok($node->poll_query_until('postgres', q{SELECT NOT EXISTS (SELECT FROM arriving WHERE NOT weir.is_final('arriving', window_end))
	AND NOT EXISTS (SELECT FROM arriving_session WHERE NOT weir.is_final('arriving_session', window_end))
	AND NOT EXISTS (SELECT FROM arriving_hop WHERE NOT weir.is_final('arriving_hop', window_end))}
	. join('', map { " AND NOT EXISTS (SELECT FROM $_ WHERE window_end < now() + interval '30 minutes' AND NOT weir.is_final('$_', window_end))" }
		qw(hopping patient cumulating in_session calendar))), 'nothing moves any more');
my %live = map { $_ => $verdicts->($_) } sort keys %views;
$make->('_new');
for my $v (sort keys %views)
{
	my $new = $verdicts->("${v}_new");
	is_deeply($new, $live{$v}, "$v: a new view judges alike");
	$node->safe_psql('postgres', "REFRESH MATERIALIZED VIEW $v");
	is_deeply($verdicts->($v), $live{$v}, "$v: rebuilt, it judges alike");
}
my %late = map { $_ => (split /\|/, (grep { /^counters/ } @{ $live{$_} })[0])[2] } keys %views;
cmp_ok($late{tumbling}, '>=', 10, 'some were late');
cmp_ok($late{hopping}, '<', $late{tumbling}, 'fewer for longer windows');
cmp_ok($late{patient}, '<', $late{tumbling}, 'and fewer with patience');
is($late{arriving} + $late{arriving_hop}, 0, 'none ever by arrival');
is($late{counting}, 0, 'nor by number');
cmp_ok($late{$_}, '>', 0, "$_: some were late") for qw(cumulating in_session calendar);
is($node->safe_psql('postgres', 'SELECT sum(n) FROM arriving'), $i + 1, 'which has them all');
$node->stop('immediate');
$node->start;
is_deeply($verdicts->($_), $live{$_}, "$_: after a crash") for sort keys %views;
is($node->safe_psql('postgres', q{SELECT weir.watermark('m') = weir.watermark('tumbling')}), 't',
	'the stream agrees');

# The clock writes into the log when that closes a window, and then rests, also
# while the final window waits in memory for a checkpoint.
$node->safe_psql('postgres', "ALTER SYSTEM SET weir.checkpoint_interval = '1h'");
$node->reload;
$node->safe_psql('postgres', q{
	CREATE TABLE q (ts timestamptz NOT NULL) USING stream
	  WITH (event_time = ts, watermark_delay = '0 s', idle_timeout = '1 ms');
	CREATE MATERIALIZED VIEW qv USING continuous AS
	  SELECT window_end, count(*) AS n FROM q, tumble(ts, '100 ms') GROUP BY window_end;
	CREATE MATERIALIZED VIEW qa USING continuous AS
	  SELECT window_end, count(*) AS n FROM q, tumble(now(), '100 ms') GROUP BY window_end;
	INSERT INTO q VALUES ('2020-01-01 00:00Z')});
ok($node->poll_query_until('postgres', q{SELECT weir.is_final('qv', '2020-01-01 00:00:00.1Z'::timestamptz)
	AND bool_and(weir.is_final('qa', window_end)) FROM qa}), 'closed by the clock');
my $marks = q{SELECT weir.watermark('q'), weir.watermark('qa'), now()};
my ($w, $wa, $at) = split /\|/, $node->safe_psql('postgres', $marks);
$node->poll_query_until('postgres', "SELECT clock_timestamp() > '$at'::timestamptz + interval '2.5 s'");
like($node->safe_psql('postgres', $marks), qr/^\Q$w|$wa|\E/, 'and it rests');
$node->safe_psql('postgres', "ALTER SYSTEM RESET weir.checkpoint_interval");
$node->reload;

# A window over now() whose end comes while the server is down.
$node->safe_psql('postgres', q{
	CREATE TABLE a (k int) USING stream;
	CREATE MATERIALIZED VIEW av USING continuous WITH (emit = final) AS
	  SELECT window_end, count(*) AS n FROM a, tumble(now(), '1 s') GROUP BY window_end;
	INSERT INTO a SELECT generate_series(1, 10)});
$node->stop('immediate');
$node->start;
ok($node->poll_query_until('postgres', 'SELECT sum(n) = 10 FROM av'), 'closed after the start');

# A writer that has not committed is not idleness: W does not go on past it,
# however short the timeout, and what it commits is in time.  Another stream, in
# which nobody writes, shows that the clock was at work all the while.
$node->safe_psql('postgres', q{
	CREATE TABLE held (k int, ts timestamptz NOT NULL) USING stream
	  WITH (event_time = ts, watermark_delay = '0 s', idle_timeout = '1 ms');
	CREATE TABLE free (k int, ts timestamptz NOT NULL) USING stream
	  WITH (event_time = ts, watermark_delay = '0 s', idle_timeout = '1 ms');
	CREATE MATERIALIZED VIEW held_v USING continuous AS
	  SELECT window_end, count(*) AS n FROM held, tumble(ts, '1 s') GROUP BY window_end;
	CREATE MATERIALIZED VIEW free_v USING continuous AS
	  SELECT window_end, count(*) AS n FROM free, tumble(ts, '3 s') GROUP BY window_end});
my $last = '2020-01-01 00:00:00Z';
my $held_by = sub {
	my ($stream, $what) = @_;
	$node->safe_psql('postgres', "INSERT INTO $stream VALUES (1, '$last')");
	$node->safe_psql('postgres', "INSERT INTO free VALUES (1, '$last')");
	ok($node->poll_query_until('postgres', q{SELECT weir.is_final('free_v', max(window_end)) FROM free}
		  . q{, tumble(ts, '3 s')}), "$what: the clock closes three seconds elsewhere");
	is($node->safe_psql('postgres', qq{SELECT weir.watermark('$stream') = '$last', weir.is_final('${stream}_v', '$last'::timestamptz + interval '1 s')}),
		't|f', "$what: and not one where somebody writes");
	like($node->safe_psql('postgres', "SELECT weir.explain('${stream}_v')"),
		qr/Not held by: open transactions .* since 2.*; but the clock does not move it meanwhile/, "$what: as weir.explain says");
};
my $open = $node->background_psql('postgres', on_error_stop => 1);
$open->query_safe("BEGIN; INSERT INTO held VALUES (2, '$last'::timestamptz + interval '0.1 s')");
$held_by->('held', 'open writer');
$open->query_safe('COMMIT');
ok($node->poll_query_until('postgres', "SELECT weir.is_final('held_v', '$last'::timestamptz + interval '1 s')"),
	'its end is the beginning of idleness');
# prepared, it goes on writing, as far as anybody knows
$last = '2020-01-01 00:01:00Z';
$open->query_safe("BEGIN; INSERT INTO held VALUES (3, '$last'::timestamptz + interval '0.1 s'); PREPARE TRANSACTION 'held'");
$held_by->('held', 'prepared');
$node->stop('immediate');
$node->start;
$last = '2020-01-01 00:02:00Z';
$held_by->('held', 'prepared, after a crash');
$node->safe_psql('postgres', q{COMMIT PREPARED 'held'});
ok($node->poll_query_until('postgres', "SELECT weir.is_final('held_v', '$last'::timestamptz + interval '1 s')"),
	'until it has ended');
is($node->safe_psql('postgres', 'SELECT array_agg(n ORDER BY window_end) FROM held_v'), '{2,1,1}', 'what was prepared before the crash is late, as its time says');
eval { $open->quit };

# Nor is downtime: a server that was stopped for longer than the timeout waits
# for that to pass anew, and W goes on by what has passed since its start.
$node->safe_psql('postgres', q{
	CREATE TABLE d (ts timestamptz NOT NULL) USING stream
	  WITH (event_time = ts, watermark_delay = '0 s', idle_timeout = '2 s');
	CREATE MATERIALIZED VIEW dv USING continuous AS
	  SELECT window_end, count(*) AS n FROM d, tumble(ts, '2 s') GROUP BY window_end});
my $minute = 0;
for my $mode ('fast', 'immediate')
{
	my $moved;

	# once more if the clock has closed the window before the stop
	for (1 .. 10)
	{
		my $at = sprintf('2020-01-01 00:%02d:00Z', $minute++);
		my $inserted = time;

		$node->safe_psql('postgres', "INSERT INTO d VALUES ('$at')");
		$node->stop($mode);
		usleep(50_000) while time < $inserted + 4;
		$node->start;
		$node->poll_query_until('postgres', "SELECT weir.is_final('dv', '$at'::timestamptz + interval '2 s')")
		  or last;
		$moved = $node->safe_psql('postgres', qq{
			WITH e AS (SELECT substring(l from 'the stream being idle, since (.*)')::timestamptz - pg_postmaster_start_time() AS arrival,
			    weir.watermark('d') - '$at' AS moved
			  FROM weir.explain('dv') l WHERE l LIKE 'Held by:%')
			SELECT arrival >= '0', arrival >= interval '2 s', moved >= interval '2 s', moved <= arrival FROM e});
		last if $moved =~ /^t/;
	}
	is($moved, 't|t|t|t', "$mode: closed at last, by the time since the start");
}

# Retention takes the record that W is from; W stays, and says so.
$node->safe_psql('postgres', q{
	CREATE TABLE r (ts timestamptz NOT NULL) USING stream WITH (event_time = ts, watermark_delay = '0 s');
	CREATE MATERIALIZED VIEW rv USING continuous AS
	  SELECT window_end, count(*) AS n FROM r, tumble(ts, '1 hour') GROUP BY window_end;
	INSERT INTO r VALUES ('2020-01-01 00:30Z');
	ALTER TABLE r SET (retention = '1 us');
	SELECT weir.wait_for();
	SELECT weir.checkpoint()});
is($node->safe_psql('postgres', 'SELECT count(*) FROM r'), '0', 'nothing is retained');
$node->restart;
is($node->safe_psql('postgres', q{SELECT weir.watermark('r'), weir.watermark('rv')}),
	'2020-01-01 00:30:00+00|2020-01-01 00:30:00+00', 'but W');
like($node->safe_psql('postgres', q{SELECT weir.explain('rv')}),
	qr/^Held by: a record that retention has removed, at the latest since 2/m, 'and it is explained');

weir_log_is_clean($node);
$node->stop;
done_testing();
