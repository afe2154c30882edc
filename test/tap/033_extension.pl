# The extension and its library need not be of one version: ALTER EXTENSION
# UPDATE while workers run, a library that is newer or older than the SQL
# objects, a checkpoint of another major version of the server or of another
# format.  The versions around the current one are made up here.

use strict;
use warnings;

use lib 'test/tap';

use IPC::Run;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use WeirTest;

my ($sharedir) = run_command([ 'pg_config', '--sharedir' ]);
my $dir = "$sharedir/extension";

plan skip_all => "cannot write to $dir" unless -w $dir;

my ($version) = slurp_file('pg_weir.control') =~ /^default_version = '(.*)'/m;
my @made;

sub script
{
	my ($versions, $text) = @_;
	my $file = "$dir/pg_weir--$versions.sql";

	die "$file is there" if -e $file;
	push @made, $file;
	append_to_file($file, "\\echo not for psql \\quit\n$text");
	return;
}

END { unlink @made }

# a version before: its table lacks a column, the last one, since ADD COLUMN
# cannot put it elsewhere
my $install = slurp_file("sql/pg_weir--$version.sql");
$install =~ s/^\\echo.*\n//m or die;
$install =~ s/(error pg_catalog\.text),\s*layout pg_catalog\.text,(\s*PRIMARY KEY \(view, generation\))/$1,$2/ or die;
script('0.0.1', $install);
script("0.0.1--$version", 'ALTER TABLE weir.view_position ADD COLUMN layout pg_catalog.text;');
# one behind, for which the library is good: a new function, a new table, and an
# old function made anew; and one that needs another library
script("$version--99.1", q{
	CREATE FUNCTION weir.is_new() RETURNS pg_catalog.bool LANGUAGE sql AS 'SELECT true';
	CREATE TABLE weir.more (a pg_catalog.int4);
	CREATE OR REPLACE FUNCTION weir.watermark(rel pg_catalog.regclass) RETURNS pg_catalog.timestamptz
		AS 'MODULE_PATHNAME', 'weir_stats_watermark' LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE;
	ALTER VIEW weir.workers OWNER TO CURRENT_USER;});
script('99.1--99.2', 'ALTER TABLE weir.view_position ADD COLUMN more pg_catalog.int8;');

my $node = weir_node('extension');
my %views = (
	total => 'SELECT k, count(*) AS n, sum(v) AS s, sum(v::numeric) AS sn, stddev(v::numeric) AS sd FROM s GROUP BY k',
	windows => q{SELECT window_start, k, count(*) AS n, avg(v) AS a FROM s, tumble(ts, '1 min') GROUP BY window_start, k},
);
my $pids = q{SELECT string_agg(pid::text, ',' ORDER BY pid) FROM weir.workers};
my $installed = q{SELECT extversion FROM pg_extension WHERE extname = 'pg_weir'};

sub sql { return $node->safe_psql('postgres', @_) }

sub error_in
{
	my ($db, $sql) = @_;
	my ($rc, $out, $err) = $node->psql($db, $sql);
	return $err;
}

# A batch query over the heap table that was written by the same transactions.
sub same
{
	my ($when) = @_;

	for my $view (sort keys %views)
	{
		(my $query = $views{$view}) =~ s/FROM s\b/FROM t s/;
		weir_same($node, $view, $query, "$when: $view equals the batch query");
	}
	return;
}

sub insert
{
	my ($n) = @_;
	return join(' ', map { "INSERT INTO $_ SELECT i % 5, i, '2026-01-01 00:00Z'::timestamptz + i * interval '1 s' "
		  . "FROM generate_series(1, $n) i;" } qw(s t));
}

sql(q{
	CREATE TABLE s (k int, v int, ts timestamptz)
		USING stream WITH (event_time = ts, watermark_delay = '1 h', retention = '1 us');
	CREATE TABLE t (LIKE s);});
sql("CREATE MATERIALIZED VIEW $_ USING continuous AS $views{$_}") for sort keys %views;

# ---- updates while writers write ----

sql(insert(10));
weir_wait($node);
my $before = sql($pids);
my $load = $node->basedir . '/load.sql';
append_to_file($load, "BEGIN;\n" . insert(20) . "\nCOMMIT;\n");
my $writers = IPC::Run::start([ 'pgbench', '-n', '-c', 4, '-t', 300, '-f', $load, $node->connstr('postgres') ],
	'>', \my $out, '2>', \my $err);
$node->poll_query_until('postgres', 'SELECT count(*) > 500 FROM t') or die 'nobody writes';
my $writer = $node->background_psql('postgres', on_error_stop => 1);
$writer->query_safe('BEGIN; ' . insert(7));

# beside a transaction that has written, and in one; what is rolled back leaves nothing
sql('BEGIN; ' . insert(5) . "ALTER EXTENSION pg_weir UPDATE TO '99.1'; " . insert(6) . 'ROLLBACK');
is(sql($installed), $version, 'an update that was rolled back has left nothing');
sql('BEGIN; ' . insert(5) . "ALTER EXTENSION pg_weir UPDATE TO '99.1'; " . insert(6) . 'COMMIT');
is(sql($installed . ' AND weir.is_new()'), '99.1', 'it is updated while writers write');
$writer->query_safe('COMMIT');
$writer->quit;
ok($writers->finish, 'the writers have noticed nothing');
weir_wait($node);
is(sql($pids), $before, 'nor have the workers');
same('after an update');
ok(defined sql(q{SELECT weir.watermark('s')}), 'a function that was made anew');

# ---- objects that are newer than the library: nothing is touched ----

sql('SELECT weir.checkpoint()');
my $row = q{SELECT string_agg(p::text, ' ' ORDER BY view) FROM weir.view_position p};
$before = sql($row);
sql(q{ALTER EXTENSION pg_weir UPDATE TO '99.2'});
like(error_in('postgres', 'REFRESH MATERIALIZED VIEW total'),
	qr/of another version than its library.*DETAIL:  Table "weir\.view_position" has \d+ columns.*HINT:  Restart the server/s,
	'the library is older than the objects');
sql(insert(3));
# a worker has tried to write a checkpoint
$node->wait_for_log(qr/worker .*of another version than its library/);
sql(insert(4));
is( sql($row),
	join(' ', map { s/\)$/,)/r } split(/(?<=\)) /, $before)),
	'no row has changed but for the new column');

# as the library of that version would find it
sql(q{
	SET allow_system_table_mods = on;
	DELETE FROM pg_attribute WHERE attrelid = 'weir.view_position'::regclass AND attname = 'more';
	UPDATE pg_class SET relnatts = relnatts - 1 WHERE oid = 'weir.view_position'::regclass});
$node->restart;
weir_wait($node, 'the views go on');
same('with the right library');

# ---- objects that are older than the library: ALTER EXTENSION UPDATE mends it ----

$node->safe_psql('postgres', 'CREATE DATABASE older');
$node->safe_psql('older', q{
	CREATE EXTENSION pg_weir VERSION '0.0.1';
	CREATE TABLE e (a int) USING stream;
	INSERT INTO e SELECT generate_series(1, 10)});
my $view = 'CREATE MATERIALIZED VIEW n USING continuous AS SELECT count(*) AS n FROM e';
like(error_in('older', "$view; SELECT weir.wait_for('n')"),
	qr/of another version than its library.*HINT:  Run ALTER EXTENSION pg_weir UPDATE/s,
	'the objects are older than the library');
$node->safe_psql('older', "ALTER EXTENSION pg_weir UPDATE TO '$version'; DROP MATERIALIZED VIEW IF EXISTS n");
$node->safe_psql('older', $view);
is($node->safe_psql('older', q{SELECT weir.wait_for('n', '120 s')}), 't', 'after the update the view is built');
is($node->safe_psql('older', 'SELECT n FROM n'), '10', 'and has counted each event once');
$node->safe_psql('older', 'SELECT weir.checkpoint()');
like($node->safe_psql('older', 'SELECT layout FROM weir.view_position'), qr/^v\d+;/, 'its checkpoint has all columns');

# ---- checkpoints: of another version of the server, of another format ----

# The checksum of a position row as catalog.c has it: CRC-32C of the columns in
# the order of the struct, as they lie in memory, then of the texts.
sub checksum
{
	my ($view, $generation) = @_;
	my $columns = join(', ', map { my ($name, $type) = split; qq{encode(${type}send("$name"), 'hex')} }
		  'view oid', 'generation int8', 'answering bool', 'position int8', 'watermark timestamptz_', 'closed_before int8',
		'allowed_lateness int8', 'checkpoint_seq int8', 'events_in int8', 'late int8', 'late_partial int8', 'final_rows int8',
		'built bool', 'failed_resumes int8', 'format int4', 'server_major int4', 'checkpoint_at timestamptz_',
		'checkpoint_us int8', 'checkpoint_bytes int8');
	my $texts = join(', ', map { qq{coalesce(encode(convert_to($_, 'UTF8'), 'hex') || '00', 'ff')} } qw(sqlstate error layout));
	my @fields = split(/[|]/, sql("SELECT $columns, $texts FROM weir.view_position WHERE view = $view AND generation = $generation"));
	my $is_little = unpack('C', pack('S', 1));
	my $crc = 0xffffffff;

	for my $i (0 .. $#fields)
	{
		my $bytes = pack('H*', $fields[$i]);
		$bytes = reverse $bytes if $is_little && $i < @fields - 3;
		for my $byte (unpack('C*', $bytes))
		{
			$crc ^= $byte;
			$crc = $crc & 1 ? $crc >> 1 ^ 0x82f63b78 : $crc >> 1 for 1 .. 8;
		}
	}
	return unpack('l', pack('L', $crc ^ 0xffffffff));
}

# Change position rows while no worker runs; the log holds nothing to rebuild from.
sub tamper
{
	my ($set) = @_;

	$node->append_conf('postgresql.conf', 'max_worker_processes = 0');
	$node->restart;
	sql("UPDATE weir.view_position SET $set");
	for (split(/\n/, sql('SELECT view::oid, generation FROM weir.view_position')))
	{
		my ($view, $generation) = split /[|]/;
		sql('UPDATE weir.view_position SET checksum = ' . checksum($view, $generation)
			  . " WHERE view = $view AND generation = $generation");
	}
	$node->append_conf('postgresql.conf', 'max_worker_processes = 16');
	$node->restart;
	return;
}

sql('SELECT weir.checkpoint()') for 1, 2;
is(sql('SELECT count(*) FROM s'), '0', 'the log is empty');
tamper('server_major = server_major - 1');
sql(insert(8));
weir_wait($node, 'checkpoints of another major version are read');
sql('SELECT weir.checkpoint()');
$node->restart;
weir_wait($node);
same('after blobs of two major versions');

tamper('format = format + 1');
ok( $node->poll_query_until('postgres', q{SELECT count(*) = 2 FROM weir.views WHERE state = 'failed'}),
	'checkpoints of a format that is unknown are not read');
like(error_in('postgres', 'SELECT * FROM total'),
	qr/checkpoint of continuous view "total" cannot be read.*DETAIL:  Format of its checkpoint is \d+/s,
	'nor by readers');
sql(insert(9));
tamper('format = format - 1');
sql("SELECT weir.resume('$_')") for sort keys %views;
weir_wait($node, 'and are as they were');
same('in the end');

weir_log_is_clean($node);
$node->stop;
done_testing();
