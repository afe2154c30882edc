# Events as large as PostgreSQL's values can be: through the log, the worker, a
# crash, a rewrite and retention, compressed and not.
#
# WEIR_HUGE=1: as large as they can be (8 GB of memory, 20 GB of disk); else
# 300 MB, if there is memory for those.
use strict;
use warnings;

use lib 'test/tap';

use Digest::MD5 qw(md5_hex);
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use WeirTest;

my $huge = $ENV{WEIR_HUGE};
# the largest value there is, and the largest in a row of an ordinary table
my $max  = $huge ? 1_073_741_819 : 300 * 1024 * 1024 + 59;
my $size = $max - 59;
my $available = slurp_file('/proc/meminfo') =~ /^MemAvailable: +(\d+) kB/m ? $1 >> 20 : 0;
my $wanted    = $huge ? 10 : 4;
plan skip_all => "$available GB of memory available, not $wanted" if $available < $wanted;

my $node = weir_node('huge', conf => "max_wal_size = '8GB'\nautovacuum = off\nweir.compression = off\n");
my $sql  = sub { $node->safe_psql('postgres', join '; ', @_) };

# What is where matters: no period of the pages or the pieces.
my $text = sub {
	my ($n) = @_;
	return "repeat(p, $n / 10007) || left(p, $n % 10007) FROM "
	  . q{(SELECT left(string_agg(md5(i::text), ''), 10007) AS p FROM generate_series(1, 320) i) p};
};
# Not compressed, so that the events are not, and outside of its row, so that a
# row may have several.
$sql->('CREATE TABLE src (t text)', 'ALTER TABLE src ALTER t SET STORAGE EXTERNAL',
	'INSERT INTO src SELECT ' . $text->($size));
is($sql->('SELECT octet_length(t) FROM src'), $size, 'as large as it should be');
my $md5 = $sql->('SELECT md5(t) FROM src');
my $max_md5 = $sql->('SELECT md5(t) FROM (SELECT ' . $text->($max) . ') t(t)');

my %views = (
	lengths => q{SELECT count(*) AS n, sum(length(a)) AS a, sum(octet_length(b)) AS b, max(id) AS id FROM h},
	sums    => q{SELECT id, max(md5(a)) AS a, max(md5(b)) AS b, min(right(b, 1)) AS c FROM h GROUP BY id});
my $create = sub { map { "CREATE MATERIALIZED VIEW $_ USING continuous AS $views{$_}" } sort keys %views };
$sql->('CREATE TABLE h (id int, a text, b text, ts timestamptz NOT NULL) USING stream WITH (event_time = ts)', $create->());
my %rows;    # id => a, b, the end of b
my $x = md5_hex('x');
my %length = ('' => 0, $x => 1, $md5 => $size, $max_md5 => $max);
my $exact = sub {
	my ($what) = @_;
	is($sql->(q{SELECT weir.wait_for(timeout => '1 hour')}), 't', "$what: caught up");
	is($sql->('TABLE sums ORDER BY id'), (join "\n", map { "$_|$rows{$_}" } sort { $a <=> $b } keys %rows), "$what: byte by byte");
	my @lengths = map { my $i = $_; my $sum = 0; $sum += $length{(split /\|/, $_, -1)[$i]} for values %rows; $sum } 0, 1;
	is($sql->('TABLE lengths'), join('|', scalar keys %rows, @lengths, (sort { $b <=> $a } keys %rows)[0]), "$what: in length");
};

# Many that are small while compressed: the worker unpacks a few at a time, and
# keeps none of them.
my $memory = sub {
	my ($what) = @_;
	my $pid = $sql->(q{SELECT worker_pid FROM weir.views WHERE view = 'lengths'::regclass});
	return slurp_file("/proc/$pid/status") =~ /^$what:\s+(\d+) kB/m ? $1 >> 10 : die "no $what";
};
my $base = $memory->('VmHWM');
$sql->('SET weir.compression = lz4',
	q{INSERT INTO h SELECT 0, repeat('x', 10 * 1024 * 1024), NULL, '2026-01-01Z' FROM generate_series(1, 32)});
weir_wait($node, 'many: caught up');
is($sql->('SELECT n, a FROM lengths'), '32|' . 32 * 10 * 1024 * 1024, 'many');
cmp_ok($memory->('VmHWM'), '<', $base + 150, 'a few at a time');
cmp_ok($memory->('RssAnon'), '<', 100, 'and none when it is done');
$sql->(q{TRUNCATE h}, q{DROP MATERIALIZED VIEW sums}, q{DROP MATERIALIZED VIEW lengths}, $create->());

# one byte, the largest, one byte; one that never was
is( $node->safe_psql('postgres', q{
		BEGIN;
		INSERT INTO h VALUES (1, 'x', NULL, '2026-01-01Z');
		INSERT INTO h (id, ts, a) SELECT 2, '2026-01-01Z', } . $text->($max) . q{ RETURNING octet_length(a);
		SAVEPOINT s;
		INSERT INTO h SELECT 3, t, 'x', '2026-01-01Z' FROM src;
		ROLLBACK TO s;
		INSERT INTO h VALUES (4, NULL, 'x', '2026-01-01Z');
		SELECT count(*), sum(octet_length(a)) FROM h;
		COMMIT}),
	"$max\n3|" . ($max + 1), 'written, returned and read back');
%rows = (1 => "$x||", 2 => "$max_md5||", 4 => "|$x|x");
$exact->('one value');

# two of them in a row, which cannot be one value any more, with what comes
# after it in the same chunk
$sql->(q{BEGIN},
	q{INSERT INTO h SELECT 5, t, t, '2026-01-01Z' FROM src},
	q{INSERT INTO h VALUES (6, 'x', 'x', '2026-01-01Z')}, q{COMMIT});
my $last = substr $sql->('SELECT right(t, 1) FROM src'), 0, 1;
$rows{5} = "$md5|$md5|$last";
$rows{6} = "$x|$x|x";
$exact->('two values');

# compressed; two of the largest are more than LZ4 takes at once
$sql->(q{SET weir.compression = lz4}, q{INSERT INTO h SELECT 7, t, NULL, '2026-01-01Z' FROM src});
$rows{7} = "$md5||";
if ($huge)
{
	$sql->(q{SET weir.compression = lz4}, q{INSERT INTO h SELECT 8, t, t, '2026-01-01Z' FROM src});
	$rows{8} = "$md5|$md5|$last";
}
$exact->('compressed');

# more than a chunk can hold: refused before it takes the memory
my $n = int(4 * 1024**3 / $size) + 1;
$sql->('CREATE TABLE wide (' . (join ', ', map { "c$_ text" } 1 .. $n) . ') USING stream',
	"CREATE MATERIALIZED VIEW wide_v USING continuous AS SELECT count(*) AS n, max(md5(c3)) AS c, max(md5(c$n)) AS d FROM wide");
my ($ret, $out, $err) = $node->psql('postgres',
	"\\set VERBOSITY verbose\nINSERT INTO wide SELECT " . (join ', ', ('t') x $n) . ' FROM src');
like($err, qr/ERROR:  54000: row is too large for a stream\nDETAIL:  A row may take up to 4 GB\./, 'more than 4 GB are refused');
if ($huge)
{
	$sql->('INSERT INTO wide SELECT t, t, t FROM src');
	is($sql->(q{SELECT weir.wait_for(timeout => '1 hour')}), 't', 'three values: caught up');
	is($sql->('TABLE wide_v'), "1|$md5|", 'three values: byte by byte');
}
$sql->('DROP TABLE wide CASCADE');

# A view that would have to keep it says so; the others go on.
$sql->('CREATE MATERIALIZED VIEW keeps USING continuous AS SELECT max(a) AS a FROM h WHERE length(a) > 1');
ok($node->poll_query_until('postgres', q{SELECT state = 'failed' FROM weir.views WHERE view = 'keeps'::regclass}),
	'no memory for it in a state');
like($sql->(q{SELECT error FROM weir.views WHERE view = 'keeps'::regclass}), qr/^(state memory of continuous views is exhausted|state of a group exceeds 511 MB)$/, 'a clear refusal');
$sql->(q{INSERT INTO h VALUES (9, 'x', NULL, '2026-01-01Z')});
$rows{9} = "$x||";
is($sql->(q{SELECT weir.wait_for('sums'), weir.wait_for('lengths')}), 't|t', 'the others go on');
$sql->('DROP MATERIALIZED VIEW keeps');

# from the log after a crash
$sql->('CHECKPOINT', q{INSERT INTO h SELECT 10, t, 'x', '2026-01-01Z' FROM src});
$rows{'10'} = "$md5|$x|x";
weir_kill9($node);
weir_start($node);
$exact->('after a crash');

# a rewrite, which makes an added column real
$sql->('ALTER TABLE h ADD COLUMN c int DEFAULT 7', 'VACUUM FULL h');
is($sql->('SELECT sum(c) FROM h'), 7 * keys %rows, 'rewritten, with a new column');
$exact->('rewritten');
$sql->('REFRESH MATERIALIZED VIEW sums');
$exact->('rebuilt');

cmp_ok($memory->('RssAnon'), '<', 200, 'the worker has given back what it needed');

# retention takes the pieces with the heads, and the next one finds room
$sql->(q{ALTER TABLE h SET (retention = '1 us')}, q{SELECT weir.checkpoint()});
is($sql->('SELECT count(*) FROM h'), '0', 'retention');
$sql->('VACUUM h');
my $before = $sql->(q{SELECT pg_relation_size('h')});
$sql->(q{ALTER TABLE h RESET (retention)}, q{INSERT INTO h SELECT 11, t, 'x', '2026-01-01Z' FROM src});
cmp_ok($sql->(q{SELECT pg_relation_size('h')}), '<', $before + $size / 10, 'its room is used again');
$rows{11} = "$md5|$x|x";
$exact->('and again');

weir_log_is_clean($node);
$node->stop;
done_testing();
