# What a continuous view must show, worked out as slowly and as plainly as can
# be: one event after the other, every event of every window kept.  It knows
# the rules of meaning and nothing of how the engine obeys them.
#
#   my $m = WeirModel->new(kind => 'tumble', size => 10, delay => 5);
#   $m->transaction([ { ts => 1, key => 'a', value => 7 }, ... ]);
#   $m->watermark; $m->rows; $m->late; $m->late_partial; $m->late_rows;
#
# Times, sizes and gaps are integers of any one unit; undef is -infinity as a
# watermark and no bound as allowed_lateness.
#
#   kind        needs                 windows
#   none                              one group for ever
#   tumble      size [origin]
#   hop         slide, size [origin]
#   cumulate    step, size [origin]
#   calendar    days => [ts, ...]     from each of these times to the next
#   bins        size, size2           two tumbling windows; the earlier end counts
#   session     gap
#   count       size [slide]          row numbers
#
# Further: allowed_lateness (0), where => sub { row -> bool } (rows that fail it
# move the watermark and nothing else), which => sub { window -> bool } (windows of
# fixed place that are not there otherwise), keyed (1; 0: one group per window).
package WeirModel;

use strict;
use warnings;

sub new
{
	my ($class, %spec) = @_;
	my $self = bless {
		delay            => 0,
		allowed_lateness => 0,
		origin           => 0,
		keyed            => 1,
		where            => sub { 1 },
		which            => sub { 1 },
		%spec,
		watermark    => undef,
		settled      => undef,    # see settle()
		log          => 0,        # events so far
		windows      => [],       # { key, start, end, events }
		found        => {},       # the same by name, but for sessions
		late         => 0,
		late_partial => 0,
		late_rows    => [],
	}, $class;

	$self->{slide} //= $self->{size};
	return $self;
}

# One record of the log: rows, then perhaps a heartbeat.  Its rows are judged by
# the watermark that the records before have left.
sub transaction
{
	my ($self, $rows, $heartbeat) = @_;

	foreach my $row (@$rows)
	{
		my $event = { %$row, log => $self->{log}++ };

		$self->take($event) if $self->{where}->($event);
	}

	$self->raise($_->{ts} - $self->{delay}) foreach @$rows;
	$self->raise($heartbeat) if defined $heartbeat;
}

# A new delay is that of the transactions to come.
sub set_delay
{
	my ($self, $delay) = @_;

	$self->{delay} = $delay;
}

# A new lateness is for windows that are not final.
sub set_lateness
{
	my ($self, $lateness) = @_;

	$self->{allowed_lateness} = $lateness;
	$self->settle;
}

sub raise
{
	my ($self, $watermark) = @_;

	$self->{watermark} = $watermark
	  if !defined $self->{watermark} || $watermark > $self->{watermark};
	$self->settle;
}

# How far windows have become final: the watermark less the lateness, and what is
# final stays so whatever the lateness becomes.
sub settle
{
	my ($self) = @_;

	return if !defined $self->{watermark} || !defined $self->{allowed_lateness};

	my $settled = $self->{watermark} - $self->{allowed_lateness};

	$self->{settled} = $settled
	  if !defined $self->{settled} || $settled > $self->{settled};
}

# Whether the watermark has come to (passed: beyond) a time plus lateness.
sub reached
{
	my ($self, $time) = @_;

	return defined $self->{settled} && $self->{settled} >= $time;
}

sub passed
{
	my ($self, $time) = @_;

	return defined $self->{settled} && $self->{settled} > $time;
}

sub is_final
{
	my ($self, $window) = @_;

	return 0 if $self->{kind} eq 'none';
	return defined $window->{end} if $self->{kind} eq 'count';
	return $self->passed($window->{end}) if $self->{kind} eq 'session';
	return $self->reached($self->end_of($window));
}

# The end that counts.
sub end_of
{
	my ($self, $window) = @_;

	return $window->{closes} // $window->{end};
}

# The windows of fixed place that hold a time.  Perl's % gives 0..n-1 for
# negative numbers too.
sub windows_of
{
	my ($self, $ts) = @_;
	my ($kind, $size, $origin) = @{$self}{qw(kind size origin)};

	if ($kind eq 'tumble')
	{
		my $start = $ts - ($ts - $origin) % $size;

		return { start => $start, end => $start + $size };
	}
	if ($kind eq 'hop')
	{
		my $slide = $self->{slide};
		my @found;

		for (my $start = $ts - ($ts - $origin) % $slide;
			$start + $size > $ts; $start -= $slide)
		{
			unshift @found, { start => $start, end => $start + $size };
		}
		return @found;
	}
	if ($kind eq 'cumulate')
	{
		my $start = $ts - ($ts - $origin) % $size;

		return grep { $ts < $_->{end} }
		  map { { start => $start, end => $start + $_ * $self->{step} } }
		  1 .. $size / $self->{step};
	}
	if ($kind eq 'calendar')
	{
		my @days = @{ $self->{days} };

		for my $i (0 .. $#days - 1)
		{
			return { start => $days[$i], end => $days[ $i + 1 ] }
			  if $days[$i] <= $ts && $ts < $days[ $i + 1 ];
		}
		die "time $ts is beyond the calendar";
	}
	if ($kind eq 'bins')
	{
		my $start  = $ts - $ts % $size;
		my $start2 = $ts - $ts % $self->{size2};
		my $end    = $start + $size;
		my $end2   = $start2 + $self->{size2};

		# its rows show both starts
		return {
			start  => $start,
			end    => $start2,
			closes => $end < $end2 ? $end : $end2 };
	}
	die "unknown kind of window \"$kind\"";
}

# The window of a key, made when it is not there.
sub window
{
	my ($self, $key, $like) = @_;

	my $name = join '|', map { $_ // 'NULL' } @{$like}{qw(start end)}, $key;

	return $self->{found}{$name} //= do
	{
		push @{ $self->{windows} }, { %$like, key => $key, events => [] };
		$self->{windows}[-1];
	};
}

sub same
{
	my ($x, $y) = @_;

	return defined $x ? defined $y && $x eq $y : !defined $y;
}

sub take
{
	my ($self, $event) = @_;
	my $key  = $self->{keyed} ? $event->{key} : 'all';
	my $kind = $self->{kind};

	return $self->take_session($key, $event) if $kind eq 'session';
	if ($kind eq 'none' || $kind eq 'count')
	{
		# a key's whole log; rows() cuts it into count windows
		push @{ $self->window($key, {})->{events} }, $event;
		return;
	}

	my @all = grep { $self->{which}->($_) } $self->windows_of($event->{ts});
	return if !@all;
	my @open = grep { !$self->reached($self->end_of($_)) } @all;

	push @{ $self->window($key, $_)->{events} }, $event foreach @open;
	if (!@open)
	{
		my ($last) = sort { $b <=> $a } map { $self->end_of($_) } @all;

		$self->too_late($event, $last);
	}
	elsif (@open < @all)
	{
		$self->{late_partial}++;
	}
}

sub take_session
{
	my ($self, $key, $event) = @_;
	my ($start, $end) = ($event->{ts}, $event->{ts} + $self->{gap});
	my @events = ($event);

	# A final session is remembered until W is two gaps after its end.
	my @same = grep { same($_->{key}, $key) } @{ $self->{windows} };
	my @met  = grep {
		$_->{start} <= $end && $start <= $_->{end}
		  && !$self->passed($_->{end} + 2 * $self->{gap})
	} @same;
	my $final = grep { $self->passed($_->{end}) } @met;

	foreach my $w (@met)
	{
		$start = $w->{start} if $w->{start} < $start;
		$end   = $w->{end}   if $w->{end} > $end;
		push @events, @{ $w->{events} };
	}
	if ($final || $self->passed($end))
	{
		$self->too_late($event, $end);
		return;
	}
	# so far back no live session is made to begin
	if ($start == $event->{ts} && !grep({ $_->{start} <= $event->{ts} } @met)
		&& $self->passed($event->{ts} + 2 * $self->{gap}))
	{
		$self->too_late($event, $event->{ts} + $self->{gap});
		return;
	}

	foreach my $w (@met)
	{
		@{ $self->{windows} } = grep { $_ != $w } @{ $self->{windows} };
	}
	push @{ $self->{windows} },
	  {
		key    => $key,
		start  => $start,
		end    => $end,
		events => [ sort { $a->{log} <=> $b->{log} } @events ] };
}

sub too_late
{
	my ($self, $event, $end) = @_;

	$self->{late}++;
	push @{ $self->{late_rows} },
	  {
		event      => $event,
		window_end => $end,
		watermark  => $self->{watermark} };
}

# What the view shows now, of all keys or of those that are asked for: { key,
# start, end, count, sum, min, max, values (in log order), events, final } in no
# particular order.
sub rows
{
	my ($self, $wanted) = @_;
	my @shown = grep { !$wanted || $wanted->($_->{key}) } @{ $self->{windows} };

	if ($self->{kind} eq 'count')
	{
		my @cut;

		foreach my $w (@shown)
		{
			my @log = @{ $w->{events} };
			my ($size, $slide) = @{$self}{qw(size slide)};

			for (my $end = $slide; $end - $size < @log; $end += $slide)
			{
				my $start = $end - $size < 0 ? 0 : $end - $size;
				my $stop = $end > @log ? scalar(@log) : $end;

				push @cut,
				  {
					key    => $w->{key},
					start  => $start,
					end    => $end > @log ? undef : $end,
					events => [ @log[ $start .. $stop - 1 ] ] };
			}
		}
		@shown = @cut;
	}

	my @rows;

	foreach my $w (@shown)
	{
		my @values = map { $_->{value} } @{ $w->{events} };
		my ($sum, $min, $max) = (0, $values[0], $values[0]);

		foreach my $v (@values)
		{
			$sum += $v;
			$min = $v if $v < $min;
			$max = $v if $v > $max;
		}
		push @rows,
		  {
			key    => $w->{key},
			start  => $w->{start},
			end    => $w->{end},
			count  => scalar(@values),
			sum    => $sum,
			min    => $min,
			max    => $max,
			values => \@values,
			events => $w->{events},
			final  => $self->is_final($w) ? 1 : 0 };
	}
	return \@rows;
}

sub watermark    { return $_[0]->{watermark} }
sub late         { return $_[0]->{late} }
sub late_partial { return $_[0]->{late_partial} }
sub late_rows    { return $_[0]->{late_rows} }

1;
