# What the TAP tests of pg_weir share.  use lib 'test/tap'; use WeirTest;
package WeirTest;

use strict;
use warnings;

use Exporter 'import';
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(usleep);

our @EXPORT = qw(weir_node weir_copy weir_try weir_patiently weir_wait weir_go_on
  weir_same weir_kill9 weir_start weir_log_is_clean);

# A server may take as long to stop, with last checkpoints, as anything may take.
$ENV{PGCTLTIMEOUT} //= $PostgreSQL::Test::Utils::timeout_default;

# A session may live for longer than a query may take.
if (my $background_psql = PostgreSQL::Test::Cluster->can('background_psql'))
{
	no warnings 'redefine';
	*PostgreSQL::Test::Cluster::background_psql = sub {
		my $psql = $background_psql->(@_);

		$psql->set_query_timer_restart;
		return $psql;
	};
}

# weir_node($name, conf => lines, %init): a node with the settings of
# test/pg_weir.conf and those lines, started, with the extension, whatever the
# locale of the caller.
sub weir_node
{
	my ($name, %init) = @_;
	my $conf = delete $init{conf} // '';
	my $node = PostgreSQL::Test::Cluster->new($name);

	$node->init(allows_streaming => 1,
		extra => [ '--no-locale', '--encoding=UTF8' ], %init);
	$node->append_conf('postgresql.conf', slurp_file('test/pg_weir.conf'));
	$node->append_conf('postgresql.conf', $conf);
	$node->start;
	$node->safe_psql('postgres', 'CREATE EXTENSION pg_weir');
	return $node;
}

# weir_copy($from, $name, backup => name of one there is, conf => lines, %how):
# a node started from a base backup; %how as of init_from_backup: a standby, or
# what recovers to a point.
sub weir_copy
{
	my ($from, $name, %how) = @_;
	my $conf   = delete $how{conf} // '';
	my $backup = delete $how{backup};
	my $node   = PostgreSQL::Test::Cluster->new($name);

	$from->backup($backup = "for_$name") if !defined $backup;
	$node->init_from_backup($from, $backup, %how);
	$node->append_conf('postgresql.conf', $conf);
	$node->start;
	return $node;
}

# The output, or undef: the statement failed, or there is no server.
sub weir_try
{
	my ($node, $sql) = @_;
	my ($ret, $out) = eval { $node->psql('postgres', $sql, timeout => 180) };

	return defined $ret && $ret == 0 ? $out : undef;
}

# Again and again, as the server may be about to restart.
sub weir_patiently
{
	my ($node, $sql) = @_;

	for (1 .. 1200)
	{
		my $out = weir_try($node, $sql);
		return $out if defined $out;
		usleep(50_000);
	}
	die "server did not come back, or fails: $sql";
}

# Every running view of the database has consumed all that is committed.
sub weir_wait
{
	my ($node, $what) = @_;

	is($node->safe_psql('postgres', "SELECT weir.wait_for(timeout => '120 s')"),
		't', $what // 'views have caught up');
}

# Views that have failed go on, and have consumed all that is committed: also one
# that fails only now, by a worker that has yet to hear that the cause is gone.
# True if all have.
sub weir_go_on
{
	my ($node) = @_;
	my $done;

	for (1 .. 100)
	{
		weir_patiently($node, q{SELECT weir.resume(view) FROM weir.views WHERE state = 'failed'});
		$done = weir_patiently($node, q{SELECT weir.wait_for(timeout => '120 s')});
		last if weir_patiently($node, q{SELECT count(*) FROM weir.views WHERE state = 'failed'}) eq '0';
	}
	return $done eq 't';
}

# The oracle: the view's rows are those of its query run over the stream.
sub weir_same
{
	my ($node, $view, $query, $what, $db) = @_;
	my $different = $node->safe_psql(
		$db // 'postgres', qq{
		SELECT count(*) FROM (
			(SELECT * FROM $view EXCEPT ALL ($query))
			UNION ALL
			(($query) EXCEPT ALL SELECT * FROM $view)) d});

	is($different, '0', $what // "$view equals its query");
}

# Kill the postmaster, and wait until the system has forgotten it: as long as
# its pid exists the next start would refuse.
sub weir_kill9
{
	my ($node) = @_;
	my $pid = $node->{_pid};

	$node->kill9;
	for (1 .. 3000)
	{
		last unless kill(0, $pid);
		usleep(10_000);
	}
}

# Start after a kill.  Its children go one after the other; until they have
# gone the shared memory is in use and the start fails.
sub weir_start
{
	my ($node) = @_;

	for (1 .. 300)
	{
		return if $node->start(fail_ok => 1);
		usleep(100_000);
	}
	BAIL_OUT('server did not start');
}

# Nothing in the log that must never be there.
sub weir_log_is_clean
{
	my ($node) = @_;
	my $log = slurp_file($node->logfile);
	my @bad = grep { /TRAP:|PANIC:|server process .* signal (?!9|3)|\bleak\b/ } split /\n/, $log;

	is_deeply(\@bad, [], 'no assertion, panic, signal or leak in the log');
}

1;
