# Random timelines: the engine against WeirModel.pm, a model that takes one event
# after the other and was written from the rules alone.
#
# First the model itself, on the golden timeline (sql/golden.sql shows the same
# one in the engine) with every number worked out by hand.  Then streams of
# random delay, each with one view per kind of window, fed with random events,
# cut into random transactions; after some of them, and at the end, every row of
# every view, its late counters, watermark and final rows must be the model's.
# Checkpoints, pauses, rebuilds, ended workers, stopped and killed servers come
# in between and must not be noticed.  At the end the queries are also run as
# ordinary ones, where nothing is late.
#
# The seed is printed.  WEIR_SEED replays the timelines, WEIR_TIMELINES (default
# 240; 10000 take half an hour) says how many.  One stream bears CHAIN
# timelines after each other, under keys of their own; stream number n of a run
# is the first of a run with WEIR_SEED = seed + n.
use strict;
use warnings;

use lib 'test/tap';

use IPC::Run;
use List::Util qw(max min sum);
use POSIX ();
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use WeirModel;
use WeirTest;

# What the server does not have yet: a line goes when it comes.
my %skip = map { $_ => 1 } (
);

use constant CHAIN => 8;    # timelines on one stream
use constant BATCH => 6;    # streams at a time

my $seed      = $ENV{WEIR_SEED}      // int(rand(1_000_000_000));
my $timelines = $ENV{WEIR_TIMELINES} // 240;
note("WEIR_SEED=$seed WEIR_TIMELINES=$timelines");
diag("timelines: WEIR_SEED=$seed");

#-----------------------------------------------------------------------------
# The model on the golden timeline.  Seconds after 12:00, delay 5 s.

my @golden = (
	[ [ 1, 'a', 1 ], [ 4, 'b', 2 ], [ 9, 'a', 3 ] ],      # W -> 4
	[ [ 12, 'b', 4 ], [ 7, 'a', 5 ], [ 3, 'b', 6 ] ],     # W -> 7
	[ [ 16, 'a', 7 ] ],                                   # W -> 11
	[ [ 8, 'a', 100 ] ],                                  # W  = 11
	[ [ 27, 'b', 8 ] ],                                   # W -> 22
	[ [ 14, 'a', 200 ] ],                                 # W  = 22
	[ [ 8, 'b', 300 ] ]);

# The rows as "key start-end values", * = final, then late/late_partial.
sub picture
{
	my ($m) = @_;
	my @rows = map {
		sprintf('%s %s-%s %s%s', $_->{key}, $_->{start} // '', $_->{end} // '',
			join(',', @{ $_->{values} }), $_->{final} ? '*' : '')
	} @{ $m->rows };

	return join('; ', sort(@rows)) . sprintf(' late %d/%d', $m->late, $m->late_partial);
}

# golden(what, spec, transaction => picture...)
sub golden
{
	my ($what, $spec, %expected) = @_;
	my $m = WeirModel->new(delay => 5, %$spec);
	my @w = (4, 7, 11, 11, 22, 22, 22);

	for my $t (1 .. 7)
	{
		$m->transaction(
			[ map { { ts => $_->[0], key => $_->[1], value => $_->[2] } } @{ $golden[ $t - 1 ] } ]);
		is($m->watermark, $w[ $t - 1 ], "golden, $what: watermark after T$t");
		is(picture($m), $expected{$t}, "golden, $what: after T$t") if $expected{$t};
	}
	return $m;
}

my $m;

# T1 judged by no W.  T2 by 4, T3 by 7: nothing is late before 10 <= W = 11.
# T4 (8) misses [0,10): 10 <= 11.  T6 (14): 20 <= 22.  T7 (8): 10 <= 22.
$m = golden(
	'tumble',
	{ kind => 'tumble', size => 10 },
	1 => 'a 0-10 1,3; b 0-10 2 late 0/0',
	2 => 'a 0-10 1,3,5; b 0-10 2,6; b 10-20 4 late 0/0',
	3 => 'a 0-10 1,3,5*; a 10-20 7; b 0-10 2,6*; b 10-20 4 late 0/0',
	4 => 'a 0-10 1,3,5*; a 10-20 7; b 0-10 2,6*; b 10-20 4 late 1/0',
	5 => 'a 0-10 1,3,5*; a 10-20 7*; b 0-10 2,6*; b 10-20 4*; b 20-30 8 late 1/0',
	6 => 'a 0-10 1,3,5*; a 10-20 7*; b 0-10 2,6*; b 10-20 4*; b 20-30 8 late 2/0',
	7 => 'a 0-10 1,3,5*; a 10-20 7*; b 0-10 2,6*; b 10-20 4*; b 20-30 8 late 3/0');
is_deeply(
	[ map { [ $_->{event}{value}, $_->{window_end}, $_->{watermark} ] } @{ $m->late_rows } ],
	[ [ 100, 10, 11 ], [ 200, 20, 22 ], [ 300, 10, 22 ] ],
	'golden, tumble: late rows');
is_deeply(
	[ map { [ @{$_}{qw(count sum min max)} ] }
		sort { $a->{key} cmp $b->{key} || $a->{start} <=> $b->{start} } @{ $m->rows } ],
	[ [ 3, 9, 1, 5 ], [ 1, 7, 7, 7 ], [ 2, 8, 2, 6 ], [ 1, 4, 4, 4 ], [ 1, 8, 8, 8 ] ],
	'golden, tumble: aggregates');

# Five seconds more: T4 10 + 5 > 11, T6 20 + 5 > 22, T7 10 + 5 <= 22.  Final is
# [0,10) when W >= 15, which is after T5.
golden(
	'tumble, lateness',
	{ kind => 'tumble', size => 10, allowed_lateness => 5 },
	3 => 'a 0-10 1,3,5; a 10-20 7; b 0-10 2,6; b 10-20 4 late 0/0',
	4 => 'a 0-10 1,3,5,100; a 10-20 7; b 0-10 2,6; b 10-20 4 late 0/0',
	5 => 'a 0-10 1,3,5,100*; a 10-20 7; b 0-10 2,6*; b 10-20 4; b 20-30 8 late 0/0',
	6 => 'a 0-10 1,3,5,100*; a 10-20 7,200; b 0-10 2,6*; b 10-20 4; b 20-30 8 late 0/0',
	7 => 'a 0-10 1,3,5,100*; a 10-20 7,200; b 0-10 2,6*; b 10-20 4; b 20-30 8 late 1/0');

# 1 and 4 are in [-5,5) and [0,10), 9 and 7 in [0,10) and [5,15), 12 in [5,15)
# and [10,20), 16 in [10,20) and [15,25), 27 in [20,30) and [25,35).
# T2's 3 comes when W is 4: [-5,5) takes it.  T4's 8: [0,10) has closed, [5,15)
# takes it.  T6's 14: [5,15) and [10,20) are over; T7's 8: [0,10) and [5,15).
$m = golden(
	'hop',
	{ kind => 'hop', slide => 5, size => 10 },
	1 => 'a -5-5 1; a 0-10 1,3; a 5-15 3; b -5-5 2; b 0-10 2 late 0/0',
	2 => 'a -5-5 1*; a 0-10 1,3,5; a 5-15 3,5; b -5-5 2,6*; b 0-10 2,6; b 10-20 4; b 5-15 4 late 0/0',
	3 => 'a -5-5 1*; a 0-10 1,3,5*; a 10-20 7; a 15-25 7; a 5-15 3,5; '
	  . 'b -5-5 2,6*; b 0-10 2,6*; b 10-20 4; b 5-15 4 late 0/0',
	4 => 'a -5-5 1*; a 0-10 1,3,5*; a 10-20 7; a 15-25 7; a 5-15 3,5,100; '
	  . 'b -5-5 2,6*; b 0-10 2,6*; b 10-20 4; b 5-15 4 late 0/1',
	5 => 'a -5-5 1*; a 0-10 1,3,5*; a 10-20 7*; a 15-25 7; a 5-15 3,5,100*; '
	  . 'b -5-5 2,6*; b 0-10 2,6*; b 10-20 4*; b 20-30 8; b 25-35 8; b 5-15 4* late 0/1',
	6 => 'a -5-5 1*; a 0-10 1,3,5*; a 10-20 7*; a 15-25 7; a 5-15 3,5,100*; '
	  . 'b -5-5 2,6*; b 0-10 2,6*; b 10-20 4*; b 20-30 8; b 25-35 8; b 5-15 4* late 1/1',
	7 => 'a -5-5 1*; a 0-10 1,3,5*; a 10-20 7*; a 15-25 7; a 5-15 3,5,100*; '
	  . 'b -5-5 2,6*; b 0-10 2,6*; b 10-20 4*; b 20-30 8; b 25-35 8; b 5-15 4* late 2/1');
is_deeply(
	[ map { [ $_->{event}{value}, $_->{window_end}, $_->{watermark} ] } @{ $m->late_rows } ],
	[ [ 200, 20, 22 ], [ 300, 15, 22 ] ],
	'golden, hop: late rows bear the last end');

# With lateness T4 enters both its windows (15 > 11), T6 misses [5,15) (20 <= 22)
# and enters [10,20) (25 > 22), T7 misses both.
golden(
	'hop, lateness',
	{ kind => 'hop', slide => 5, size => 10, allowed_lateness => 5 },
	4 => 'a -5-5 1*; a 0-10 1,3,5,100; a 10-20 7; a 15-25 7; a 5-15 3,5,100; '
	  . 'b -5-5 2,6*; b 0-10 2,6; b 10-20 4; b 5-15 4 late 0/0',
	7 => 'a -5-5 1*; a 0-10 1,3,5,100*; a 10-20 7,200; a 15-25 7; a 5-15 3,5,100*; '
	  . 'b -5-5 2,6*; b 0-10 2,6*; b 10-20 4; b 20-30 8; b 25-35 8; b 5-15 4* late 1/1');

# 1, 4 and 3 are in [0,5) and [0,10), 9, 7 and 8 in [0,10), 12 and 14 in [10,15)
# and [10,20), 16 in [10,20), 27 in [20,30).
golden(
	'cumulate',
	{ kind => 'cumulate', step => 5, size => 10 },
	1 => 'a 0-10 1,3; a 0-5 1; b 0-10 2; b 0-5 2 late 0/0',
	3 => 'a 0-10 1,3,5*; a 0-5 1*; a 10-20 7; b 0-10 2,6*; b 0-5 2,6*; b 10-15 4; b 10-20 4 late 0/0',
	4 => 'a 0-10 1,3,5*; a 0-5 1*; a 10-20 7; b 0-10 2,6*; b 0-5 2,6*; b 10-15 4; b 10-20 4 late 1/0',
	7 => 'a 0-10 1,3,5*; a 0-5 1*; a 10-20 7*; b 0-10 2,6*; b 0-5 2,6*; '
	  . 'b 10-15 4*; b 10-20 4*; b 20-30 8 late 3/0');

# T4 enters [0,10) (15 > 11), T6 misses [10,15) (20 <= 22) and enters [10,20).
golden(
	'cumulate, lateness',
	{ kind => 'cumulate', step => 5, size => 10, allowed_lateness => 5 },
	4 => 'a 0-10 1,3,5,100; a 0-5 1*; a 10-20 7; b 0-10 2,6; b 0-5 2,6*; b 10-15 4; b 10-20 4 late 0/0',
	7 => 'a 0-10 1,3,5,100*; a 0-5 1*; a 10-20 7,200; b 0-10 2,6*; b 0-5 2,6*; '
	  . 'b 10-15 4*; b 10-20 4; b 20-30 8 late 1/1');

# a: 1 -> [1,6), 9 -> [9,14), 7 -> [7,12) joins [9,14): [7,14).  b: 4 -> [4,9), 12
# -> [12,17), 3 -> [3,8) joins [4,9): [3,9).  T4's 8 -> [8,13) joins [7,14), which
# lives at W = 11.  T6's 14 -> [14,19) would join [16,21), final since 22 > 21 and
# remembered until W > 26.  T7's 8 -> [8,13) would join [12,17), final and
# remembered until W > 22.
$m = golden(
	'session',
	{ kind => 'session', gap => 5 },
	1 => 'a 1-6 1; a 9-14 3; b 4-9 2 late 0/0',
	2 => 'a 1-6 1*; a 7-14 3,5; b 12-17 4; b 3-9 2,6 late 0/0',
	3 => 'a 1-6 1*; a 16-21 7; a 7-14 3,5; b 12-17 4; b 3-9 2,6* late 0/0',
	4 => 'a 1-6 1*; a 16-21 7; a 7-14 3,5,100; b 12-17 4; b 3-9 2,6* late 0/0',
	5 => 'a 1-6 1*; a 16-21 7*; a 7-14 3,5,100*; b 12-17 4*; b 27-32 8; b 3-9 2,6* late 0/0',
	7 => 'a 1-6 1*; a 16-21 7*; a 7-14 3,5,100*; b 12-17 4*; b 27-32 8; b 3-9 2,6* late 2/0');

# A slow watermark: 8 touches [1,6)+gap? no; 6 touches both and bridges them.
my $bridge = WeirModel->new(kind => 'session', gap => 5, delay => 100);
$bridge->transaction([ { ts => 1, key => 'a', value => 1 }, { ts => 11, key => 'a', value => 2 } ]);
is(picture($bridge), 'a 1-6 1; a 11-16 2 late 0/0', 'session: apart');
$bridge->transaction([ { ts => 6, key => 'a', value => 3 } ]);
is(picture($bridge), 'a 1-16 1,2,3 late 0/0', 'session: a row that touches two joins them');

# Five seconds more: [16,21) lives (22 <= 26), but 14 would join [7,14) too, final
# since 22 > 19 and remembered until W > 24: late.  T7's 8 would join [12,17), which
# lives, 22 > 22 is not so, and with it [3,9), final since 22 > 14: late, as b's
# sessions would overlap.
golden(
	'session, lateness',
	{ kind => 'session', gap => 5, allowed_lateness => 5 },
	4 => 'a 1-6 1; a 16-21 7; a 7-14 3,5,100; b 12-17 4; b 3-9 2,6 late 0/0',
	5 => 'a 1-6 1*; a 16-21 7; a 7-14 3,5,100*; b 12-17 4; b 27-32 8; b 3-9 2,6* late 0/0',
	6 => 'a 1-6 1*; a 16-21 7; a 7-14 3,5,100*; b 12-17 4; b 27-32 8; b 3-9 2,6* late 1/0',
	7 => 'a 1-6 1*; a 16-21 7; a 7-14 3,5,100*; b 12-17 4; b 27-32 8; b 3-9 2,6* late 2/0');

# a: 1 3 5 7 100 200; b: 2 4 6 8 300.
golden(
	'count',
	{ kind => 'count', size => 2 },
	1 => 'a 0-2 1,3*; b 0- 2 late 0/0',
	2 => 'a 0-2 1,3*; a 2- 5; b 0-2 2,4*; b 2- 6 late 0/0',
	4 => 'a 0-2 1,3*; a 2-4 5,7*; a 4- 100; b 0-2 2,4*; b 2- 6 late 0/0',
	7 => 'a 0-2 1,3*; a 2-4 5,7*; a 4-6 100,200*; b 0-2 2,4*; b 2-4 6,8*; b 4- 300 late 0/0');

# Windows [-1,2), [1,4), [3,6), [5,8): the first is cut.
golden(
	'count, slide',
	{ kind => 'count', size => 3, slide => 2 },
	1 => 'a 0-2 1,3*; a 1- 3; b 0- 2 late 0/0',
	7 => 'a 0-2 1,3*; a 1-4 3,5,7*; a 3-6 7,100,200*; a 5- 200; '
	  . 'b 0-2 2,4*; b 1-4 4,6,8*; b 3- 8,300 late 0/0');

# No window: nothing is late, nothing final.
golden('none', { kind => 'none' }, 7 => 'a - 1,3,5,7,100,200; b - 2,4,6,8,300 late 0/0');

# Days from 0, 10 and 13: the short one closes when W is 22.
golden(
	'calendar',
	{ kind => 'calendar', days => [ 0, 10, 13, 40 ] },
	7 => 'a 0-10 1,3,5*; a 13-40 7,200; b 0-10 2,6*; b 10-13 4*; b 13-40 8 late 2/0');

# Below zero the floor is still the floor.
$m = WeirModel->new(kind => 'tumble', size => 10);
$m->transaction([ { ts => -1, key => 'a', value => 1 }, { ts => -10, key => 'a', value => 2 },
		{ ts => -11, key => 'a', value => 3 } ]);
is(picture($m), 'a -10-0 1,2; a -20--10 3* late 0/0', 'tumble before 1970');

#-----------------------------------------------------------------------------
# Random streams

sub chance { return rand() < $_[0] }
sub pick   { return $_[ int(rand(@_)) ] }
sub upto   { my ($from, $to) = @_; return $from + int(rand($to - $from + 1)) }

my $us_per_second = 1_000_000;

sub stamp
{
	my ($us) = @_;
	my $rest = $us % $us_per_second;
	my @t    = gmtime(($us - $rest) / $us_per_second);

	return sprintf('%04d-%02d-%02d %02d:%02d:%02d.%06d',
		$t[5] + 1900, $t[4] + 1, @t[ 3, 2, 1, 0 ], $rest);
}

sub span
{
	my ($us) = @_;

	return sprintf('%d.%06d seconds', $us / $us_per_second, $us % $us_per_second);
}

# Midnights of Berlin: winter's are 23:00 UTC, summer's 22:00.
sub berlin_days
{
	my @days;
	my $first = 1583020800;    # 2020-03-01 00:00 UTC

	for my $d (0 .. 1400)
	{
		my $midnight = $first + $d * 86400;
		my $ymd      = substr(stamp($midnight * $us_per_second), 0, 10);
		my $summer =
			 ($ymd gt '2020-03-29' && $ymd le '2020-10-25')
		  || ($ymd gt '2021-03-28' && $ymd le '2021-10-31')
		  || ($ymd gt '2022-03-27' && $ymd le '2022-10-30')
		  || ($ymd gt '2023-03-26' && $ymd le '2023-10-29');

		push @days, ($midnight - ($summer ? 7200 : 3600)) * $us_per_second;
	}
	return \@days;
}
my $berlin = berlin_days();

# One view: what the model and what the server must be told.
sub make_view
{
	my ($s, $name, $kind) = @_;
	my $u = $s->{unit};
	my %v = (name => $name, kind => $kind, stream => $s->{name});
	my %model = (kind => $kind, delay => $s->{delay});
	my ($call, @keys, @with, @where);

	$v{keyed} = chance(0.85) || $kind eq 'none';
	@keys = ('k') if $v{keyed};
	$model{keyed} = $v{keyed};

	if ($kind =~ /^(tumble|hop|cumulate)$/)
	{
		my $step = upto(1, 6) * $u;
		my @args;

		if ($kind eq 'tumble')
		{
			$model{size} = upto(1, 15) * $u;
			@args = ($model{size});
		}
		else
		{
			$model{ $kind eq 'hop' ? 'slide' : 'step' } = $step;
			$model{size} = $step * upto(1, 5);
			@args = ($step, $model{size});
		}
		@args = map { "'" . span($_) . "'" } @args;
		if (chance(0.3))
		{
			$model{origin} = $s->{base} + upto(-40, 40) * $u;
			push @args, $s->{literal}->($model{origin});
		}
		$call = "$kind(ts, " . join(', ', @args) . ')';
	}
	elsif ($kind eq 'session')
	{
		$model{gap} = upto(1, 9) * $u;
		$call = "session(ts, '" . span($model{gap}) . "')";
	}
	elsif ($kind eq 'count')
	{
		$model{size} = upto(1, 5);
		$call = "count_window($model{size})";
		if (chance(0.6))
		{
			$model{slide} = upto(1, $model{size});
			$call = "count_window($model{size}, $model{slide})";
		}
	}
	elsif ($kind eq 'bin')
	{
		$model{kind} = 'tumble';
		$model{size} = upto(1, 15) * $u;
		$model{origin} = $s->{base} + upto(-40, 40) * $u;
		$v{start} = "date_bin('" . span($model{size}) . "', ts, " . $s->{literal}->($model{origin}) . ')';
	}
	elsif ($kind eq 'bins')
	{
		$model{size} = upto(1, 8) * $u;
		$model{size2} = $model{size} * upto(1, 4);
		($v{start}, $v{end}) =
		  map { "date_bin('" . span($_) . "', ts, " . $s->{literal}->(0) . ')' } @model{qw(size size2)};
	}
	elsif ($kind eq 'calendar')
	{
		$model{days} = $berlin;
		$v{start} = "date_trunc('day', ts, 'Europe/Berlin')";
	}
	elsif ($kind eq 'minute')
	{
		$model{kind} = 'tumble';
		$model{size} = 60 * $us_per_second;
		$v{start} = "date_trunc('minute', ts)";
	}

	if ($call)
	{
		# one bound is enough, where it says which window it is
		my $which = $kind eq 'count' ? 0 : upto(0, 3);

		$v{start} = 'window_start' unless $which == 1;
		$v{end}   = 'window_end'   unless $which == 2 && $kind ne 'cumulate';
	}
	push @keys, grep { defined } @v{qw(start end)};
	$v{judged} = $call && $kind ne 'count' && defined $v{end};

	if ($kind !~ /^(none|count)$/)
	{
		my $lateness = chance(0.5) ? 0 : chance(0.8) ? upto(1, 15) * $u : undef;

		$model{allowed_lateness} = $lateness;
		push @with, 'allowed_lateness = ' . (defined $lateness ? "'" . span($lateness) . "'" : 'infinity')
		  unless defined $lateness && $lateness == 0;
		if (!$skip{late_table} && chance(0.4))
		{
			$v{late_table} = "${name}_late";
			push @with, "late_table = $v{late_table}";
		}
	}
	if ($kind ne 'none' && chance(0.25))
	{
		$v{final_only} = 1;
		push @with, 'emit = final';
	}
	if (chance(0.25))
	{
		@where = ('v % 3 <> 0');
		$model{where} = sub { $_[0]{value} % 3 != 0 };
	}
	if ($kind =~ /^(tumble|hop|cumulate)$/ && chance(0.25))
	{
		my $a = $s->{base} + upto(-20, 60) * $u;
		my $b = $a + upto(0, 30) * $u;
		my ($before, $after) = map { $s->{literal}->($_) } $a, $b;

		push @where, "(window_end <= $before OR window_start >= $after)";
		$model{which} = sub { $_[0]{end} <= $a || $_[0]{start} >= $b };
	}
	$v{having} = 'count(*) > 1' if chance(0.2);

	# flat states, states that are rows, states in order of the log
	my @extra = (
		[ "''", sub { '' } ],
		[ 'array_agg(v)', sub { '{' . join(',', @{ $_[0]{values} }) . '}' } ],
		[ "string_agg(v::text, '-')", sub { join('-', @{ $_[0]{values} }) } ],
		[ 'sum(v::numeric)', sub { sum(@{ $_[0]{values} }) } ],
		[ 'array_agg(v ORDER BY v)', sub { '{' . join(',', sort { $a <=> $b } @{ $_[0]{values} }) . '}' } ],
		[ 'count(DISTINCT v % 3)', sub { my %d = map { POSIX::fmod($_, 3) + 0 => 1 } @{ $_[0]{values} }; scalar(keys %d) } ],
		[ 'count(*) FILTER (WHERE v > 0)', sub { scalar(grep { $_ > 0 } @{ $_[0]{values} }) } ],
		[ "weir.first(v, $s->{as_tz}) || ' ' || weir.last(v, $s->{as_tz})",
			sub {
				my @e = sort { $a->{ts} <=> $b->{ts} || $a->{log} <=> $b->{log} } @{ $_[0]{events} };
				"$e[0]{value} $e[-1]{value}";
			} ]);
	my $extra = chance(0.3) ? $extra[0] : pick(@extra);

	$v{extra} = $extra->[1];
	$v{query} = 'SELECT '
	  . join(', ',
		$v{keyed} ? 'k' : (),
		defined $v{start} ? "$v{start} AS a" : (),
		defined $v{end}   ? "$v{end} AS b"   : (),
		'count(*) AS n', 'sum(v) AS s', 'min(v) AS lo', 'max(v) AS hi', "$extra->[0] AS x")
	  . " FROM $s->{name}"
	  . ($call ? ", $call" : '')
	  . (@where     ? ' WHERE ' . join(' AND ', @where) : '')
	  . (@keys      ? ' GROUP BY ' . join(', ', @keys) : '')
	  . ($v{having} ? " HAVING $v{having}"       : '');
	$v{sql} =
	  "CREATE MATERIALIZED VIEW $name USING continuous"
	  . (@with ? ' WITH (' . join(', ', @with) . ')' : '')
	  . " AS $v{query};";
	$v{spec} = \%model;
	$v{model} = WeirModel->new(%model);
	return \%v;
}

sub make_stream
{
	my ($number) = @_;
	my $unit = pick(1, 1000, $us_per_second, $us_per_second, 3600 * $us_per_second);
	my $tz   = chance(0.7);
	my $base =
		$unit > $us_per_second ? 1585267200 * $us_per_second    # 2020-03-27: summer time comes
	  : chance(0.3)            ? -upto(0, 200) * $unit
	  :                          pick(1583020799, 1_600_000_000 + int(rand(1000))) * $us_per_second;
	my %s = (
		number  => $number,
		name    => "s$number",
		unit    => $unit,
		delay   => pick(0, upto(0, 12), upto(0, 12), 30) * $unit,
		base    => $base,
		literal => sub { $tz ? "timestamptz '" . stamp($_[0]) . "+00'" : "timestamp '" . stamp($_[0]) . "'" },
		as_tz   => $tz ? 'ts' : "(ts AT TIME ZONE 'UTC')");
	my @kinds = qw(none tumble tumble bin bins hop hop cumulate session session count count);

	push @kinds, 'calendar' if $unit > $us_per_second && $tz;
	push @kinds, 'minute'   if $unit == $us_per_second;

	$s{sql} = "CREATE TABLE $s{name} (k text, v int, ts "
	  . ($tz ? 'timestamptz' : 'timestamp') . " NOT NULL) USING stream"
	  . " WITH (event_time = ts, watermark_delay = '" . span($s{delay}) . "');";

	# made whether or not the server has the kind: a seed means the same views
	my $i = 0;

	$s{queries} = [ map { make_view(\%s, "$s{name}_v" . $i++, $_) } @kinds ];
	$s{views} = [ grep { !$skip{ $_->{kind} } } @{ $s{queries} } ];
	return \%s;
}

sub us
{
	my ($column) = @_;

	return "(extract(epoch FROM $column) * 1000000)::bigint";
}

# The lines that the server must print for a view, of the keys with a prefix or
# of all.
sub expected_rows
{
	my ($v, $prefix) = @_;
	my $wanted = defined $prefix && $v->{keyed}
	  ? sub { !defined $_[0] || $_[0] =~ /^$prefix/ }
	  : undef;
	my @lines;

	foreach my $r (@{ $v->{model}->rows($wanted) })
	{
		next if $v->{final_only} && !$r->{final};
		next if $v->{having} && $r->{count} <= 1;
		push @lines,
		  join('|',
			$r->{key} // 'null',
			defined $v->{start} ? $r->{start} // 'null' : '',
			defined $v->{end}   ? $r->{end}   // 'null' : '',
			@{$r}{qw(count sum min max)},
			$v->{extra}->($r),
			!$v->{judged} ? '' : $r->{final} ? 't' : 'f');
	}
	return [ sort @lines ];
}

sub rows_sql
{
	my ($v, $prefix) = @_;
	my $bound = $v->{kind} eq 'count' ? sub { "$_[0]::text" } : sub { us($_[0]) . '::text' };

	return 'SELECT '
	  . join(', ',
		$v->{keyed} ? "coalesce(k, 'null')" : "'all'",
		defined $v->{start} ? 'coalesce(' . $bound->('a') . ", 'null')" : "''",
		defined $v->{end}   ? 'coalesce(' . $bound->('b') . ", 'null')" : "''",
		'n', 's', 'lo', 'hi', 'x',
		$v->{judged} ? "weir.is_final('$v->{name}', b)" : "''")
	  . ($v->{batch} ? " FROM ($v->{query}) q" : " FROM $v->{name}")
	  . (defined $prefix && $v->{keyed} ? " WHERE k IS NULL OR k LIKE '$prefix%'" : '') . ';';
}

# For whoever has to know where final rows are from.
sub more_sql
{
	my ($v) = @_;

	return "SELECT now(), 'row', ctid, xmin, cmin, xmax, v.* FROM $v->{name} v;\n"
	  . "SELECT now(), 'position', ctid, xmin, xmax, p.* FROM weir.view_position p WHERE view = '$v->{name}'::regclass;\n"
	  . "SELECT now(), 'state', ctid, xmin, xmax, view, generation, seq, max_pane, ngroups, encode(data, 'hex') FROM weir.view_state WHERE view = '$v->{name}'::regclass;\n"
	  . "SELECT now(), 'view', v.* FROM weir.views v WHERE view = '$v->{name}'::regclass;\n";
}

sub expected_counters
{
	my ($v) = @_;
	my $m = $v->{model};

	return join('|', $v->{name}, 'running', $m->late, $m->late_partial, $m->watermark // '');
}

sub counters_sql
{
	my ($stream) = @_;

	return 'SELECT view, state, late, late_partial, CASE WHEN isfinite(watermark) THEN '
	  . us('watermark')
	  . " END FROM weir.views WHERE view::text LIKE '$stream\\_%';\n";
}

# The view's query as an ordinary one over the whole stream: nothing is late.
# What depends on the order in which it meets the rows is left out.
sub as_batch
{
	my ($s, $v) = @_;
	my $m = WeirModel->new(%{ $v->{spec} }, allowed_lateness => undef);
	my %q = (%$v, batch => 1, model => $m, final_only => 0, judged => 0);

	$m->transaction($_->{rows}) foreach @{ $s->{records} };
	if ($q{query} =~ s/(array_agg\(v\)|string_agg\(.*?\)|weir\.first\(.* weir\.last\(.*?\)) AS x/'' AS x/)
	{
		$q{extra} = sub { '' };
	}
	return \%q;
}

# Everything that is compared goes into @$plan: the label that \echo prints
# before the server's lines, and the lines.
sub compare
{
	my ($s, $prefix) = @_;
	my $sql = "SELECT weir.wait_for(NULL, '120 s');\n";
	my $plan = $s->{plan};
	my $saved = !defined $prefix || chance(0.3);

	# only a checkpoint shows new rows in a view that shows final ones only
	$sql .= "SELECT weir.checkpoint();\n" if $saved;
	foreach my $v (@{ $s->{views} })
	{
		next if $v->{final_only} && !$saved;

		my $label = '#' . scalar(@$plan);

		push @$plan,
		  {
			what  => "rows of $v->{name} ($v->{kind})",
			view  => $v,
			at    => scalar(@{ $s->{story} }),
			lines => expected_rows($v, $prefix) };
		$sql .= "\\echo $label\n" . rows_sql($v, $prefix) . "\n";
		$sql .= "\\echo #more\n" . more_sql($v) if $v->{final_only};
	}
	push @$plan,
	  {
		what  => "counters of the views of $s->{name}",
		at    => scalar(@{ $s->{story} }),
		lines => [ sort map { expected_counters($_) } @{ $s->{views} } ] };
	$sql .= '\\echo #' . (@$plan - 1) . "\n" . counters_sql($s->{name});
	foreach my $v (grep { $_->{late_table} && !defined $prefix } @{ $s->{views} })
	{
		push @$plan,
		  {
			what  => "late rows of $v->{name} ($v->{kind})",
			view  => $v,
			at    => scalar(@{ $s->{story} }),
			lines => [
				sort map {
					join('|', $v->{name}, $_->{event}{key} // 'null', $_->{event}{value},
						$_->{event}{ts}, $_->{window_end}, $_->{watermark})
				} @{ $v->{model}->late_rows } ] };
		$sql .= '\\echo #' . (@$plan - 1) . "\nSELECT late_view, coalesce(k, 'null'), v, "
		  . join(', ', map { us($_) } qw(ts window_end watermark))
		  . " FROM $v->{late_table};\n";
	}
	if (!defined $prefix)
	{
		foreach my $v (@{ $s->{queries} })
		{
			my $q = as_batch($s, $v);

			push @$plan,
			  {
				what  => "$v->{query};",
				batch => 1,
				at    => scalar(@{ $s->{story} }),
				lines => expected_rows($q) };
			$sql .= '\\echo #' . (@$plan - 1) . "\n" . rows_sql($q) . "\n";
		}
	}
	return "$sql\\echo #end\n";
}

sub values_sql
{
	my ($s, $row) = @_;

	return sprintf('(%s, %d, %s)', defined $row->{key} ? "'$row->{key}'" : 'NULL',
		$row->{value}, $s->{literal}->($row->{ts}));
}

sub heartbeat_sql
{
	my ($s, $at) = @_;

	return "SELECT weir.advance_watermark('$s->{name}', timestamptz '" . stamp($at) . "+00');";
}

# REFRESH judges the whole log by the lateness of now.
sub rebuild
{
	my ($s, $v) = @_;
	my $m = WeirModel->new(%{ $v->{spec} }, allowed_lateness => $v->{model}{allowed_lateness});

	foreach my $r (@{ $s->{records} })
	{
		$m->set_delay($r->{delay});
		$m->transaction($r->{rows}, $r->{heartbeat});
	}
	$v->{model} = $m;
	push @{ $s->{story} }, "REFRESH MATERIALIZED VIEW $v->{name};";
	push @{ $s->{records} }, { rows => [], delay => $s->{delay}, view => $v->{name}, refresh => 1 };
	$v->{new_lateness} = 0;
}

sub delay_sql
{
	my ($stream, $delay) = @_;

	return "ALTER TABLE $stream SET (watermark_delay = '" . span($delay) . "');";
}

# One timeline: 5 to 50 events, told to the models and written as SQL.
sub make_timeline
{
	my ($s, $number, $may_end) = @_;
	my $prefix   = "t$number";
	my @keys     = map { $prefix . $_ } ('a' .. pick('a' .. 'd'));
	my $events   = upto(5, 50);
	my $disorder = pick(0, 5, 12, 25);
	my $most     = pick(1, 3, 10);
	my $sql      = '';
	my %paused;

	while ($events > 0)
	{
		my @rows;
		my $heartbeat;

		if (chance(0.03))
		{
			my $alter;

			$s->{delay} = upto(0, 20) * $s->{unit};
			$alter = delay_sql($s->{name}, $s->{delay});
			$sql .= "$alter\n";
			push @{ $s->{story} }, $alter;
			push @{ $s->{records} }, { rows => [], delay => $s->{delay} };
			$_->{model}->set_delay($s->{delay}) foreach @{ $s->{views} };
		}

		for (1 .. min($events, upto(1, $most)))
		{
			my $step = rand();

			$s->{cursor} += $step < 0.35 ? 0 : $step < 0.8 ? upto(1, 3) : $step < 0.95 ? upto(4, 10) : upto(15, 40);
			push @rows,
			  {
				ts    => $s->{base} + ($s->{cursor} - (chance(0.4) ? upto(0, $disorder) : 0)) * $s->{unit},
				key   => chance(0.04) ? undef : pick(@keys),
				value => upto(-9, 9) * 1000 + $s->{events}++ % 1000 };
		}
		$events -= @rows;
		$heartbeat = $s->{base} + ($s->{cursor} + upto(-10, 10)) * $s->{unit} if chance(0.06);

		# as one statement or several, some of it taken back
		my @values = map { values_sql($s, $_) } @rows;
		my $insert = "INSERT INTO $s->{name} VALUES ";
		my $junk = $insert . "('$keys[0]', 77, " . $s->{literal}->($s->{base} + ($s->{cursor} + 500) * $s->{unit}) . ");";
		my @statements;

		while (@values)
		{
			push @statements, $insert . join(', ', splice(@values, 0, upto(1, scalar(@values)))) . ';';
		}
		splice(@statements, upto(0, scalar(@statements)), 0, heartbeat_sql($s, $heartbeat))
		  if defined $heartbeat;
		splice(@statements, upto(0, scalar(@statements)), 0, "SAVEPOINT p; $junk ROLLBACK TO p;")
		  if chance(0.03);
		my $transaction = join(' ', @statements);
		$transaction = "BEGIN; $transaction COMMIT;" if @statements > 1 || $transaction =~ /SAVEPOINT/;
		$sql .= "BEGIN; $junk ROLLBACK;\n" if chance(0.03);
		$sql .= "$transaction\n";
		push @{ $s->{story} }, $transaction;
		push @{ $s->{records} }, { rows => \@rows, heartbeat => $heartbeat, delay => $s->{delay} };
		$_->{model}->transaction(\@rows, $heartbeat) foreach @{ $s->{views} };

		# what must not be noticed
		$sql .= "SELECT weir.checkpoint();\n" if chance(0.1);
		if (chance(0.04))
		{
			my $v = pick(@{ $s->{views} })->{name};

			$sql .= "SELECT weir.pause('$v');\n" unless $paused{$v}++;
		}
		if (chance(0.03))
		{
			my $v = pick(@{ $s->{views} });

			if (!$paused{ $v->{name} })
			{
				$sql .= "REFRESH MATERIALIZED VIEW $v->{name};\n";
				rebuild($s, $v) if $v->{new_lateness};
			}
		}
		if (chance(0.03))
		{
			my $v = pick(@{ $s->{views} });
			my $lateness = chance(0.85) ? upto(0, 20) * $s->{unit} : undef;

			if ($v->{kind} !~ /^(none|count)$/ && !$paused{ $v->{name} })
			{
				# counts from where the view is when its worker learns of it
				my $alter = "ALTER MATERIALIZED VIEW $v->{name} SET (allowed_lateness = "
				  . (defined $lateness ? "'" . span($lateness) . "'" : 'infinity') . ');';

				$sql .= "SELECT weir.wait_for('$v->{name}', '120 s');\n$alter\nSELECT weir.checkpoint();\n";
				push @{ $s->{story} }, $alter;
				push @{ $s->{records} }, { rows => [], delay => $s->{delay}, view => $v->{name}, lateness => $lateness };
				$v->{model}->set_lateness($lateness);
				$v->{new_lateness} = 1;
			}
		}
		# not often: who has lived for a short time is started with back-off
		$sql .= "SELECT pg_terminate_backend(pid, 10000) FROM weir.workers;\n"
		  if chance(0.01) && $$may_end && $$may_end--;
		if ($events <= 0 || chance(0.15))
		{
			$sql .= "SELECT weir.resume('$_');\n" foreach sort keys %paused;
			%paused = ();
			$sql .= compare($s, $prefix);
		}
	}
	return $sql;
}

#-----------------------------------------------------------------------------
# The server against the models

my $node = weir_node('timelines');
my $dir = PostgreSQL::Test::Utils::tempdir();
my %compared;
my %shrunk;
my $failures = 0;

# Runs a script and compares what it printed with the plans of its streams.
sub run_script
{
	my ($what, $sql, $stream_of) = @_;
	my ($out, $err) = ('', '');
	my $file = "$dir/script.sql";

	append_to_file($file, "SET client_min_messages = error;\nSET timezone = 'UTC';\nSET statement_timeout = '180s';\n$sql");
	my $ok = IPC::Run::run(
		[ 'psql', '-X', '-q', '-A', '-t', '-v', 'ON_ERROR_STOP=1', '-d', $node->connstr('postgres'), '-f', $file ],
		'>', \$out, '2>', \$err,
		IPC::Run::timeout(900));
	unlink($file);

	ok($ok, "$what: script ran") or do { diag($err); $failures++ };

	my ($stream, $check, $got);
	my $done = sub {
		return unless $check;
		$compared{ $check->{view} ? $check->{view}{kind} : $check->{batch} ? 'batch' : 'counters' }++;
		my @got = sort grep { $_ ne 't' && $_ ne '' } @{ $check->{got} };
		if (join("\n", @got) ne join("\n", @{ $check->{lines} }) && $failures++ < 5)
		{
			report($stream, $check, \@got);
		}
	};
	foreach my $line (split /\n/, $out)
	{
		if ($line =~ /^#stream (\d+)/)
		{
			$done->();
			($stream, $check) = ($stream_of->{$1}, undef);
		}
		elsif ($line =~ /^#(\d+)$/)
		{
			$done->();
			$check = $stream->{plan}[$1];
			$check->{got} = $got = [];
		}
		elsif ($line eq '#more')
		{
			$check->{more} = $got = [];
		}
		elsif ($line eq '#end')
		{
			$done->();
			$check = undef;
		}
		elsif ($check)
		{
			push @$got, $line;
		}
	}
	$done->();
}

# Everything that somebody needs who asks which of both is wrong.
sub report
{
	my ($s, $check, $got) = @_;
	my %in_model = map { $_ => 1 } @{ $check->{lines} };
	my %in_view  = map { $_ => 1 } @$got;

	fail($check->{what});
	my ($name) = $check->{view} ? $check->{view}{name} : map { /^(\w+)/ } grep { !$in_model{$_} } @$got;
	my ($v) = grep { $_->{name} eq ($name // '') } @{ $s->{views} };

	if ($v && !$check->{batch} && !$shrunk{$name}++)
	{
		diag($_) foreach shrink($s, $v, [ @{ $s->{records} }[ 0 .. $check->{at} - 1 ] ]);
	}
	diag('replay: WEIR_SEED=' . ($seed + $s->{number}) . ' WEIR_TIMELINES=' . CHAIN);
	diag($s->{sql});
	diag($check->{view}{sql}) if $check->{view};
	diag($_) foreach @{ $s->{story} }[ 0 .. $check->{at} - 1 ];
	diag("only the model: $_") foreach grep { !$in_view{$_} } @{ $check->{lines} };
	diag("only the view:  $_") foreach grep { !$in_model{$_} } @$got;
	diag("more: $_") foreach @{ $check->{more} // [] };
	diag('the same rows, other numbers of them')
	  unless grep({ !$in_view{$_} } @{ $check->{lines} }) || grep({ !$in_model{$_} } @$got);
}

# The same view over other records, on a stream of its own, perhaps with a
# checkpoint after each: what the two say that differs, as lines, and the script.
sub disagreement
{
	my ($s, $v, $records, $checkpoints) = @_;
	my %copy = (%$v, name => 'shrunk_v', model => WeirModel->new(%{ $v->{spec} }));
	my $sql = "SET client_min_messages = error;\nSET timezone = 'UTC';\n$s->{sql}\n$v->{sql}\n";

	my $delay = $v->{spec}{delay};
	my @told;

	foreach my $r (@$records)
	{
		if (exists $r->{lateness} && $r->{view} eq $v->{name})
		{
			$sql .= "SELECT weir.wait_for(NULL, '30 s');\nALTER MATERIALIZED VIEW $v->{name} SET (allowed_lateness = "
			  . (defined $r->{lateness} ? "'" . span($r->{lateness}) . "'" : 'infinity')
			  . ");\nSELECT weir.checkpoint();\n";
			$copy{model}->set_lateness($r->{lateness});
		}
		if ($r->{refresh} && $r->{view} eq $v->{name})
		{
			my %as_told = (records => [@told], name => $s->{name}, story => []);

			$sql .= "REFRESH MATERIALIZED VIEW $v->{name};\n";
			rebuild(\%as_told, \%copy);
		}
		push @told, $r;
		if ($r->{delay} != $delay)
		{
			$delay = $r->{delay};
			$sql .= delay_sql($s->{name}, $delay) . "\n";
			$copy{model}->set_delay($delay);
		}
		next unless @{ $r->{rows} } || defined $r->{heartbeat};

		my $values = join(', ', map { values_sql($s, $_) } @{ $r->{rows} });

		$sql .= 'BEGIN; '
		  . ($values ne '' ? "INSERT INTO $s->{name} VALUES $values; " : '')
		  . (defined $r->{heartbeat} ? heartbeat_sql($s, $r->{heartbeat}) . ' ' : '')
		  . "COMMIT;\n";
		$sql .= "SELECT weir.checkpoint();\n" if $checkpoints;
		$copy{model}->transaction($r->{rows}, $r->{heartbeat});
	}
	$sql =~ s/\b$v->{name}(_late)?\b/shrunk_v$1/g;
	$sql =~ s/\b$s->{name}\b/shrunk/g;

	my $ask = "SELECT weir.wait_for(NULL, '30 s');\n"
	  . ($v->{final_only} ? "SELECT weir.checkpoint();\n" : '')
	  . "\\echo #\n" . rows_sql(\%copy) . counters_sql('shrunk') . "\\echo #\nDROP TABLE shrunk CASCADE;\n";
	my ($rc, $out, $err) = $node->psql('postgres', $sql . $ask, timeout => 120);
	my @got = split(/\n/, ($out =~ /^#\n(.*?)^#/ms)[0] // "error: $err");
	my @want = (@{ expected_rows(\%copy) }, expected_counters(\%copy));
	my %got = map { $_ => 1 } @got;
	my %want = map { $_ => 1 } @want;

	return (
		[ map("only the model: $_", grep { !$got{$_} } @want), map("only the view:  $_", grep { !$want{$_} } @got) ],
		$sql);
}

# The smallest history that still makes engine and model disagree about a view.
sub shrink
{
	my ($s, $v, $records) = @_;
	my $tries = 0;

	foreach my $checkpoints (0, 1)
	{
		my @best = @$records;

		next unless @{ (disagreement($s, $v, \@best, $checkpoints))[0] };
		my $better = sub {
			return 0 if ++$tries > 400 || !@{ (disagreement($s, $v, $_[0], $checkpoints))[0] };
			@best = @{ $_[0] };
			return 1;
		};

		for (my $cut = int(@best / 2) || 1; $cut >= 1; $cut = int($cut / 2))
		{
			for (my $at = @best - $cut; $at >= 0; $at -= $cut)
			{
				$better->([ @best[ 0 .. $at - 1 ], @best[ $at + $cut .. $#best ] ])
				  if $at + $cut <= @best;
			}
		}
		for my $i (0 .. $#best)
		{
			for (my $j = $#{ $best[$i]{rows} }; $j >= 0; $j--)
			{
				my @rows = @{ $best[$i]{rows} };

				splice(@rows, $j, 1);
				$better->([ @best[ 0 .. $i - 1 ], { %{ $best[$i] }, rows => \@rows }, @best[ $i + 1 .. $#best ] ]);
			}
			$better->([ @best[ 0 .. $i - 1 ], { %{ $best[$i] }, heartbeat => undef }, @best[ $i + 1 .. $#best ] ])
			  if defined $best[$i]{heartbeat};
		}

		my ($lines, $sql) = disagreement($s, $v, \@best, $checkpoints);

		return ("smallest:", split(/\n/, $sql), @$lines);
	}
	return ('not without what happened in between');
}

my $streams = int(($timelines + CHAIN - 1) / CHAIN);
my $told    = 0;

for (my $first = 0; $first < $streams; $first += BATCH)
{
	my @batch;
	my ($one, $two) = ('', '');

	srand($seed + $first);
	my $down = chance(0.5) ? pick('fast', 'immediate') : undef;
	my $may_end = defined $down;

	for my $number ($first .. min($first + BATCH, $streams) - 1)
	{
		srand($seed + $number);
		my $s = make_stream($number);
		my $n = min(CHAIN, $timelines - $number * CHAIN);

		@{$s}{qw(plan story records events cursor)} = ([], [], [], 0, 0);
		$one .= "\\echo #stream $number\n" . join("\n", $s->{sql}, map { $_->{sql} } @{ $s->{views} }) . "\n";
		$two .= "\\echo #stream $number\n";
		for my $t (1 .. $n)
		{
			# the last of a chain come after the server has been down
			if ($t <= $n / 2) { $one .= make_timeline($s, $t, \$may_end) }
			else              { $two .= make_timeline($s, $t, \0) }
			$told++;
		}
		$two .= compare($s) . "DROP TABLE $s->{name} CASCADE;\n";
		push @batch, $s;
	}

	my %stream_of = map { $_->{number} => $_ } @batch;
	my $what = 'streams ' . $first . ' to ' . ($first + @batch - 1);

	run_script("$what, first half", $one, \%stream_of);
	last if $failures;
	if ($down)
	{
		$node->stop($down);
		$node->start;
	}
	run_script("$what, second half", $two, \%stream_of);
	last if $failures;
}

is($failures, 0, "engine and model agree on $told timelines");
note(join(', ', map { "$_ $compared{$_}" } sort keys %compared));
weir_log_is_clean($node);
done_testing();
