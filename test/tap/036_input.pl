# Bad input.  What a heap table refuses, a stream refuses with the same SQLSTATE;
# what it takes, a stream takes; where the manual says otherwise of event times,
# that is so.  Each value comes by INSERT, by COPY in its three formats, as the
# parameter of a prepared statement and between two savepoints, among good rows,
# of which those of a statement that fails leave nothing.  Views fail of some of
# what is taken: with on_error = skip they leave out just those events and say
# which, with stop they stand still and lose nothing.  Nobody crashes.
# WEIR_HUGE=1: also a text of 1 GB, of which nobody can keep a row.
use strict;
use warnings;

use lib 'test/tap';

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use WeirTest;

my $node = weir_node('input', conf => "log_min_messages = fatal\nlog_min_error_statement = panic\n");
my $dir  = PostgreSQL::Test::Utils::tempdir;

sub sql { return $node->safe_psql('postgres', $_[0]) }

# Who must outlive it all: nobody has crashed if these have not.
sub processes
{
	return ((split /\n/, slurp_file($node->data_dir . '/postmaster.pid'))[0],
		split /\n/, sql(q{SELECT pid FROM weir.workers UNION ALL
			SELECT pid FROM pg_stat_activity WHERE backend_type = 'checkpointer'}));
}

# The stream, and the heap that is the oracle.
my $columns = q{
	id int, ts timestamptz, i2 int2, i4 int4, i8 int8, f4 float4, f8 float8, n numeric, t text,
	vc varchar(5), bc char(3), b bool, bin bytea, j json, jb jsonb, u uuid, ia int[], iv interval,
	d date, tm timestamptz, tod time, e color, dom positive, domt word, r int4range, ip inet, bi bit(3),
	comp pair, nn int NOT NULL DEFAULT 1, pt point, CHECK (i2 <> 13)};
sql(qq{
	CREATE TYPE color AS ENUM ('red', 'green');
	CREATE DOMAIN positive AS int CHECK (VALUE > 0);
	CREATE DOMAIN word AS text CHECK (VALUE !~ ' ') NOT NULL DEFAULT 'word';
	CREATE TYPE pair AS (x int, y text);
	CREATE TABLE s ($columns) USING stream WITH (event_time = ts);
	CREATE TABLE h ($columns) USING heap});

# Queries, of which most fail of some events.
my %query = (
	dividing => 'SELECT i2, count(*) AS n, sum(100 / i4) AS s FROM %s GROUP BY i2',
	adding   => 'SELECT b, count(i4) AS n, sum(i4 + 1) AS s, min(i4 - 1) AS m FROM %s GROUP BY b',
	doubling => 'SELECT count(*) AS n, sum(i8 * 2) AS s FROM %s',
	floating => 'SELECT i4 %% 2 AS k, count(f8) AS n, sum(f8) AS s, max(f8) AS m FROM %s GROUP BY i4 %% 2',
	spans    => 'SELECT count(iv) AS n, sum(iv) AS s, max(iv) AS m FROM %s',
	squares  => 'SELECT nn, count(n) AS n, sum(n * n) AS s FROM %s GROUP BY nn',
	weeks => "SELECT window_start, count(*) AS n, max(id) AS m FROM %s, tumble(ts, '7 days') GROUP BY window_start",
	words => 'SELECT t, count(*) AS n, count(DISTINCT vc) AS d, max(e) AS e, min(dom) AS dom FROM %s GROUP BY t',
	days  => 'SELECT d, count(*) AS n, max(tm) AS m, min(tm) AS l, count(jb) AS j, max(ia) AS a FROM %s GROUP BY d',
	parts => 'SELECT (jb -> 0)::int AS k, count(*) AS n FROM %s GROUP BY (jb -> 0)::int',
	mended => 'SELECT ia[1] AS k, count(*) AS n, sum(measured(vc)) AS s FROM %s GROUP BY ia[1]');
sql(q{CREATE FUNCTION measured(text) RETURNS int IMMUTABLE LANGUAGE plpgsql AS $$
	BEGIN IF $1 = '' THEN RAISE division_by_zero; END IF; RETURN length($1); END $$});
foreach my $name (sort keys %query)
{
	my $lateness = $name eq 'weeks' ? ', allowed_lateness = infinity' : '';
	my $text     = sprintf($query{$name}, 's');

	sql("CREATE MATERIALIZED VIEW ${name}_$_ USING continuous WITH (on_error = $_$lateness) AS $text") foreach 'stop', 'skip';
}
weir_wait($node);
my @processes = processes();

# [column, what, text or undef: null, SQLSTATE of the stream where it is its own]
my $long  = 'long ' x 1_000_000;
my @texts = (
	[ 'ts', 'null',                undef,                                 '23502' ],
	[ 'ts', 'infinity',            'infinity',                            '22008' ],
	[ 'ts', '-infinity',           '-infinity',                           '22008' ],
	[ 'ts', 'the last',            '294276-12-31 23:59:59.999999Z',       '22008' ],
	[ 'ts', 'in two days',         sql("SELECT now() + interval '2 days'"), '22008' ],
	[ 'ts', 'beyond the last',     '294277-01-01 00:00:00Z' ],
	[ 'ts', 'the first',           '4714-11-24 00:00:00Z BC' ],
	[ 'ts', 'before the first',    '4714-11-23 23:59:59.999999Z BC' ],
	[ 'ts', 'year 0',              '0000-01-01Z' ],
	[ 'ts', 'epoch',               'epoch' ],
	[ 'ts', 'empty',               '' ],
	[ 'ts', 'month 13',            '2026-13-01Z' ],
	[ 'ts', '30 February',         '2026-02-30Z' ],
	[ 'ts', 'no zone',             '2026-01-01 Mars/Olympus' ],
	[ 'i2', 'too large',           '32768' ],
	[ 'i2', 'too small',           '-32769' ],
	[ 'i2', 'checked',             '13' ],
	[ 'i4', 'too large',           '2147483648' ],
	[ 'i4', 'largest',             '2147483647' ],
	[ 'i4', 'smallest',            '-2147483648' ],
	[ 'i4', 'zero',                '0' ],
	[ 'i4', 'null',                undef ],
	[ 'i4', 'not a number',        'four' ],
	[ 'i8', 'too large',           '9223372036854775808' ],
	[ 'i8', 'largest',             '9223372036854775807' ],
	[ 'i8', 'smallest',            '-9223372036854775808' ],
	[ 'i8', 'fraction',            '1.5' ],
	[ 'f4', 'too large',           '1e39' ],
	[ 'f4', 'NaN',                 'NaN' ],
	[ 'f8', 'large',               '1.7e308' ],
	[ 'f8', 'too large',           '1e309' ],
	[ 'f8', 'NaN',                 'NaN' ],
	[ 'f8', 'infinity',            'Infinity' ],
	[ 'f8', '-infinity',           '-Infinity' ],
	[ 'f8', 'too small',           '1e-400' ],
	[ 'n',  'NaN',                 'NaN' ],
	[ 'n',  'infinity',            'Infinity' ],
	[ 'n',  '100,000 digits',      '9' x 100_000 ],
	[ 'n',  'too many digits',     '9' x 131_073 ],
	[ 'n',  '16,383 decimals',     '0.' . '1' x 16_383 ],
	[ 't',  'empty',               '' ],
	[ 't',  'null',                undef ],
	[ 't',  'bad UTF-8',           "\xC3\x28" ],
	[ 't',  'surrogate',           "\xED\xA0\x80" ],
	[ 't',  'beyond Unicode',      "\xF4\x90\x80\x80" ],
	[ 't',  'overlong',            "\xC0\x80" ],
	[ 't',  'cut off',             "a\xE2\x82" ],
	[ 't',  'the last character',  "\xF4\x8F\xBF\xBF" ],
	[ 't',  'control characters',  join('', map { chr } 1 .. 31, 127) ],
	[ 't',  '5 MB',                $long ],
	[ 'vc', 'too long',            '123456' ],
	[ 'vc', 'long by blanks',      '12345   ' ],
	[ 'vc', 'empty',               '' ],
	[ 'bc', 'too long',            'abcd' ],
	[ 'b',  'neither',             'perhaps' ],
	[ 'bin', 'no hex',             '\\xZZ' ],
	[ 'bin', 'half a byte',        '\\x123' ],
	[ 'bin', 'empty',              '' ],
	[ 'j',  'cut off',             '{"a": [1, 2' ],
	[ 'j',  'empty',               '' ],
	[ 'j',  'deep',                '[' x 100_000 ],
	[ 'jb', 'lone surrogate',      '"\\ud800"' ],
	[ 'jb', 'zero character',      '"\\u0000"' ],
	[ 'jb', 'number',              '[1e100000]' ],
	[ 'jb', 'no number',           '["one"]' ],
	[ 'jb', 'two values',          '1 2' ],
	[ 'u',  'too short',           '0123' ],
	[ 'ia', 'empty',               '{}' ],
	[ 'ia', 'not closed',          '{1,2' ],
	[ 'ia', 'ragged',              '{{1,2},{3}}' ],
	[ 'ia', 'upside down',         '[2:1]={1}' ],
	[ 'ia', 'of nulls',            '{NULL,NULL}' ],
	[ 'ia', 'of 7 dimensions',     '{{{{{{{1}}}}}}}' ],
	[ 'ia', 'from below',          '[-5:-4]={1,2}' ],
	[ 'ia', 'bounds too large',    '[2147483647:2147483648]={1,2}' ],
	[ 'iv', 'largest',             '178000000 years' ],
	[ 'iv', 'smallest',            '-178000000 years' ],
	[ 'iv', 'too large',           '178956971 years' ],
	[ 'iv', 'days too large',      '2147483648 days' ],
	[ 'iv', 'no unit',             '1 moment' ],
	[ 'd',  'last',                '5874897-12-31' ],
	[ 'd',  'beyond',              '5874898-01-01' ],
	[ 'd',  'infinity',            'infinity' ],
	[ 'tm', 'infinity',            'infinity' ],
	[ 'tm', '-infinity',           '-infinity' ],
	[ 'tm', 'last',                '294276-12-31 23:59:59.999999Z' ],
	[ 'tod', '25 hours',           '25:00' ],
	[ 'e',  'unknown',             'blue' ],
	[ 'e',  'case',                'Red' ],
	[ 'dom', 'violated',           '-1' ],
	[ 'dom', 'out of range',       '99999999999' ],
	[ 'domt', 'violated',          'two words' ],
	[ 'domt', 'null',              undef ],
	[ 'r',  'empty',               'empty' ],
	[ 'r',  'upside down',         '[2,1)' ],
	[ 'r',  'beyond',              '[1,2147483647]' ],
	[ 'ip', 'wrong',               '300.1.1.1' ],
	[ 'bi', 'too long',            '10101' ],
	[ 'comp', 'too many',          '(1,2,3)' ],
	[ 'comp', 'wrong',             '(x,y)' ],
	[ 'nn', 'null',                undef ],
	[ 'pt', 'infinite',            '(inf,-inf)' ],
	[ 'pt', 'half',                '(1,)' ]);

# The same by the bytes of the binary format.
my $time   = sub { pack('q>', $_[0]) };
my $second = 1_000_000;
my @bytes  = (
	[ 'ts', 'null',              undef,                                                '23502' ],
	[ 'ts', 'infinity',          $time->('9223372036854775807'),                       '22008' ],
	[ 'ts', '-infinity',         pack('NN', 0x80000000, 0),                            '22008' ],
	[ 'ts', 'the last',          $time->('9223371331199999999'),                       '22008' ],
	[ 'ts', 'beyond the last',   $time->('9223371331200000000') ],
	[ 'ts', 'the first',         $time->('-211813488000000000') ],
	[ 'ts', 'before the first',  $time->('-211813488000000001') ],
	[ 'ts', 'too short',         'abc' ],
	[ 'i4', 'too short',         "\0\0\1" ],
	[ 'i4', 'too long',          "\0" x 8 ],
	[ 'i4', 'nothing',           '' ],
	[ 'i4', 'zero',              "\0" x 4 ],
	[ 'i8', 'largest',           "\x7F" . "\xFF" x 7 ],
	[ 'f8', 'NaN',               "\x7F\xF8" . "\0" x 6 ],
	[ 'f8', 'another NaN',       "\xFF\xF0" . "\0" x 5 . "\1" ],
	[ 'f8', 'denormal',          "\0" x 7 . "\1" ],
	[ 'n',  'NaN',               pack('n4', 0, 0, 0xC000, 0) ],
	[ 'n',  'no such sign',      pack('n4', 0, 0, 0x1234, 0) ],
	[ 'n',  'digit too large',   pack('n5', 1, 0, 0, 0, 10000) ],
	[ 'n',  'fewer digits',      pack('n5', 9, 0, 0, 0, 1) ],
	[ 'n',  'weight too large',  pack('n5', 1, 0x7FFF, 0, 0, 1) ],
	[ 'n',  'scale too large',   pack('n5', 1, 0, 0, 0x7FFF, 1) ],
	[ 't',  'bad UTF-8',         "\xC3\x28" ],
	[ 't',  'zero byte',         "a\0b" ],
	[ 't',  'empty',             '' ],
	[ 't',  '5 MB',              $long ],
	[ 'vc', 'too long',          '123456' ],
	[ 'b',  'neither',           "\7" ],
	[ 'j',  'cut off',           '{"a"' ],
	[ 'jb', 'no version',        '{}' ],
	[ 'jb', 'another version',   "\2{}" ],
	[ 'u',  'too short',         'abc' ],
	[ 'ia', 'empty',             pack('N3', 0, 0, 23) ],
	[ 'ia', 'of text',           pack('N3', 0, 0, 25) ],
	[ 'ia', '7 dimensions',      pack('N3 (NN)7', 7, 0, 23, (1, 1) x 7) ],
	[ 'ia', 'too many elements', pack('N3 NN', 1, 0, 23, 0x7FFFFFFF, 1) ],
	[ 'ia', 'negative length',   pack('N3 NN', 1, 0, 23, 0xFFFFFFFF, 1) ],
	[ 'ia', 'element missing',   pack('N3 NN N N', 1, 0, 23, 2, 1, 4, 1) ],
	[ 'ia', 'bounds too large',  pack('N3 NN NN NN', 1, 0, 23, 2, 0x7FFFFFFF, 4, 1, 4, 1) ],
	[ 'iv', 'largest',           pack('NN N N', 0x7FFFFFFF, 0xFFFFFFFF, 0x7FFFFFFF, 0x7FFFFFFF) ],
	[ 'd',  'beyond',            pack('N', 0x7FFFFFFE) ],
	[ 'e',  'unknown',           'blue' ],
	[ 'dom', 'violated',         pack('N', 0xFFFFFFFF) ],
	[ 'r',  'no such flags',     "\xFF" ],
	[ 'comp', 'too many',        pack('N', 3) . pack('N3', 23, 4, 1) x 3 ],
	[ 'nn', 'null',              undef ]);

# What is good in each column, so that there is something to lose.
my $now  = '2026-01-01 00:00:00Z';
my %good = (
	i2 => 2, i4 => 50, i8 => 8, f4 => 4, f8 => 8, n => 10, t => 'text', vc => 'vc', bc => 'bc', b => 't', bin => '\\x00',
	j => '[1]', jb => '[1, 2]', u => '00000000-0000-0000-0000-000000000000', ia => '{1,2}', iv => '1 day', d => '2026-01-01',
	tm => $now, tod => '12:00', e => 'red', dom => 1, domt => 'word', r => '[1,2)', ip => '10.0.0.1', bi => '101',
	comp => '(1,x)', nn => 1, pt => '(1,2)');

my (@script, @cases);
my ($files, $id) = (0, 0);

# Statements, of which the last but what is in $after is in question; TABLE stands
# for the table.  What it says is found by its number.  What the heap alone takes is
# not kept.
sub add_case
{
	my ($what, $stream_says, $text, $after) = @_;

	push @cases, { what => $what, stream => $stream_says };
	foreach my $table ('h', 's')
	{
		my $all = "$text;\n\\echo \@$#cases $table :SQLSTATE\n";

		$all = "BEGIN;\n${all}ROLLBACK;\n" if $table eq 'h' && defined $stream_says && $text !~ /^BEGIN/;
		$all .= "$after;\n" if defined $after;

		$all =~ s/\bTABLE\b/$table/g;
		push @script, $all;
	}
	return;
}

# A file for COPY, which the server reads.
sub file
{
	my ($content) = @_;
	my $name = "$dir/" . $files++;

	open(my $f, '>:raw', $name) or die "$name: $!";
	print $f $content;
	close($f);
	return "'$name'";
}

sub literal
{
	my ($value) = @_;

	return 'NULL' unless defined $value;
	return "repeat('long ', 1000000)" if $value eq $long;
	$value =~ s/'/''/g;
	return "'$value'";
}

sub text_field
{
	my ($value) = @_;

	return '\\N' unless defined $value;
	$value =~ s/([\\\t\n\r])/\\$1/g;
	return $value;
}

sub csv_field
{
	my ($value) = @_;

	return '' unless defined $value;
	$value =~ s/"/""/g;
	return "\"$value\"";
}

sub binary_field { return defined $_[0] ? pack('N/a*', $_[0]) : pack('N', 0xFFFFFFFF) }

# One row of (id, ts, the column), or of (id, ts).
sub row
{
	my ($as, $separator, $c, $value) = @_;

	return join($separator, ++$id, map { $as->($_) } $c eq 'ts' ? $value : ($now, $value));
}

# The row in question between good ones.
sub rows
{
	my ($as, $separator, $c, $value) = @_;
	my $good = $c eq 'ts' ? $now : $good{$c};

	return map { row($as, $separator, $c, $_) } $good, $value, $good;
}

foreach my $t (@texts)
{
	my ($c, $what, $value, $stream_says) = @$t;
	my $cols    = $c eq 'ts' ? 'id, ts' : "id, ts, $c";
	my $params  = $c eq 'ts' ? '$1, $2' : "\$1, '$now', \$2";
	my $values  = sub { join(', ', map { "($_)" } rows(\&literal, ', ', $c, $value)) };
	my $prepare = 'PREPARE p AS INSERT INTO TABLE (' . $cols . ") VALUES ($params)";
	my $add     = sub { add_case("$c $what: $_[0]", $stream_says, @_[ 1 .. $#_ ]) };

	$add->('INSERT', "INSERT INTO TABLE ($cols) VALUES " . $values->());
	$add->('prepared', "$prepare;\nEXECUTE p (" . ++$id . ', ' . literal($value) . ')', 'DEALLOCATE p');
	$add->('savepoint',
		"BEGIN;\nINSERT INTO TABLE ($cols) VALUES " . $values->() . ";\nROLLBACK;\nBEGIN;\n"
		  . "INSERT INTO TABLE (id, ts) VALUES (" . ++$id . ", '$now');\nSAVEPOINT a;\nINSERT INTO TABLE ($cols) VALUES " . $values->(),
		"ROLLBACK TO a;\nINSERT INTO TABLE (id, ts) VALUES (" . ++$id . ", '$now');\nCOMMIT");
	$add->('COPY text', "COPY TABLE ($cols) FROM " . file(join('', map { "$_\n" } rows(\&text_field, "\t", $c, $value))));
	$add->('COPY csv', "COPY TABLE ($cols) FROM " . file(join('', map { "$_\n" } rows(\&csv_field, ',', $c, $value))) . ' (FORMAT csv)');
}

my $signature = "PGCOPY\n\xFF\r\n\0";
my $header    = $signature . pack('NN', 0, 0);
my $end       = pack('n', 0xFFFF);
my $when      = $time->(820454400 * $second);

sub binary_row
{
	my @fields = (pack('N', ++$id), @_);

	return pack('n', scalar @fields) . join('', map { binary_field($_) } @fields);
}

foreach my $b (@bytes)
{
	my ($c, $what, $value, $stream_says) = @$b;
	my $cols = $c eq 'ts' ? 'id, ts' : "id, ts, $c";
	my @rows = $c eq 'ts' ? map { binary_row($_) } $when, $value : (binary_row($when, $value));

	add_case("$c $what: COPY binary", $stream_says, "COPY TABLE ($cols) FROM " . file($header . join('', @rows) . $end) . ' (FORMAT binary)');
}

# Files that are wrong as such, behind a good row.
sub good_binary { return binary_row($when) }
my $copy = sub {
	my ($what, $content, $options) = @_;
	add_case("file: $what", undef, 'COPY TABLE (id, ts) FROM ' . file($content) . ($options ? " ($options)" : ''));
};
my $line = sub { return ++$id . "\t$now" };
$copy->('binary, nothing', '', 'FORMAT binary');
$copy->('binary, another signature', "PGCOPY\n\xFF\n\n\0" . pack('NN', 0, 0) . good_binary() . $end, 'FORMAT binary');
$copy->('binary, flags', $signature . pack('NN', 0x80000000, 0) . good_binary() . $end, 'FORMAT binary');
$copy->('binary, old flags', $signature . pack('NN', 0x00010000, 0) . good_binary() . $end, 'FORMAT binary');
$copy->('binary, no length', $signature . pack('N', 0), 'FORMAT binary');
$copy->('binary, negative length', $signature . pack('NN', 0, 0xFFFFFFF0), 'FORMAT binary');
$copy->('binary, length beyond', $signature . pack('NN', 0, 1000) . good_binary() . $end, 'FORMAT binary');
$copy->('binary, no end', $header . good_binary(), 'FORMAT binary');
$copy->('binary, more after the end', $header . good_binary() . $end . 'x', 'FORMAT binary');
$copy->('binary, too few fields', $header . good_binary() . binary_row() . $end, 'FORMAT binary');
$copy->('binary, too many fields', $header . good_binary() . binary_row($when, $when) . $end, 'FORMAT binary');
$copy->('binary, negative fields', $header . good_binary() . pack('n', 0xFFFE) . $end, 'FORMAT binary');
$copy->('binary, cut in a length', $header . good_binary() . substr(binary_row($when), 0, 12), 'FORMAT binary');
$copy->('binary, cut in a field', $header . good_binary() . substr(binary_row($when), 0, 18), 'FORMAT binary');
$copy->('binary, negative field', $header . good_binary() . pack('n N', 2, 0xFFFFFFFE) . $end, 'FORMAT binary');
$copy->('binary, field of 2 GB', $header . good_binary() . pack('n N', 2, 0x7FFFFFFF) . $end, 'FORMAT binary');
$copy->('text as binary', $line->() . "\n", 'FORMAT binary');
$copy->('binary as text', $header . good_binary() . $end);
$copy->('binary as csv', $header . good_binary() . $end, 'FORMAT csv');
$copy->('too few columns', $line->() . "\n" . ++$id . "\n");
$copy->('too many columns', $line->() . "\n" . $line->() . "\t1\n");
$copy->('an empty line', $line->() . "\n\n" . $line->() . "\n");
$copy->('zero byte', $line->() . "\n" . ++$id . "\t2026-01-01\0\n");
$copy->('two kinds of ends of lines', $line->() . "\n" . $line->() . "\r\n");
$copy->('more after the end mark', $line->() . "\n\\.\n" . $line->() . "\n");
$copy->('end mark in a line', $line->() . "\n" . $line->() . "\\.\n");
$copy->('no end of line', $line->() . "\n" . $line->());
$copy->('quote not closed', ++$id . ",\"$now\n", 'FORMAT csv');
$copy->('zero byte in csv', ++$id . ",\"2026-01-01\0\"\n", 'FORMAT csv');
$copy->('too few in csv', ++$id . "\n", 'FORMAT csv');
$copy->('too many in csv', ++$id . ",$now,\n", 'FORMAT csv');
$copy->('no encoding of that name', $line->() . "\n", q{ENCODING 'none'});
my $text_copy = sub {
	my ($what, $bytes, $encoding) = @_;
	add_case("$encoding: $what", undef, 'COPY TABLE (id, ts, t) FROM ' . file($line->() . "\t$bytes\n") . " (ENCODING '$encoding')");
};
$text_copy->('half a character', "\x82", 'SJIS');
$text_copy->('no such character', "\xFC\xFC", 'SJIS');
$text_copy->('half a character', "\xA4", 'EUC_JP');
$text_copy->('undefined', "\x81", 'WIN1252');
$text_copy->('every byte', join('', map { chr } 128 .. 255), 'LATIN1');
$text_copy->('four bytes cut off', "\x81\x30\x81", 'GB18030');
add_case('a client of another encoding', undef,
	"SET client_encoding = 'SJIS';\nINSERT INTO TABLE (id, ts, t) VALUES (" . ++$id . ", '$now', '\x82\x28')", 'RESET client_encoding');
add_case('LATIN1 for UTF-8', undef,
	"SET client_encoding = 'LATIN1';\nINSERT INTO TABLE (id, ts, t) VALUES (" . ++$id . ", '$now', '\xE4\xF6')", 'RESET client_encoding');
add_case('more values than columns', undef, "INSERT INTO TABLE (id, ts) VALUES (1, '$now', 2)");
add_case('no such column', undef, "INSERT INTO TABLE (id, no) VALUES (1, '$now')");
add_case('a time of another type', undef, "INSERT INTO TABLE (id, ts) VALUES (1, 2)");
add_case('division', undef, "INSERT INTO TABLE (id, ts, i4) SELECT $id + i, '$now', 10 / (3 - i) FROM generate_series(1, 5) i");
add_case('sum too large', undef, "INSERT INTO TABLE (id, ts, i8) SELECT 1, '$now', sum(9223372036854775807) FROM generate_series(1, 2)");
add_case('1 GB', undef, "INSERT INTO TABLE (id, ts, t) SELECT 1, '$now', repeat('x', 1024 * 1024 * 1024 - 5)") if $ENV{WEIR_HUGE};

my ($rc, $out, $err) = $node->psql('postgres', "\\set VERBOSITY sqlstate\n" . join('', @script), on_error_stop => 0);
my (%says, @differ, %seen);
$says{$1}{$2} = $3 while $out =~ /^@(\d+) ([hs]) (\w+)$/mg;
foreach my $n (0 .. $#cases)
{
	my ($heap, $stream) = map { $says{$n}{$_} // 'nothing' } 'h', 's';
	my $expected = $heap eq '00000' && defined $cases[$n]{stream} ? $cases[$n]{stream} : $heap;

	$seen{$stream}++;
	push @differ, "$cases[$n]{what}: $stream, heap $heap" if $stream ne $expected;
}
is(join("\n", @differ), '', 'a stream refuses what a heap refuses');
diag(scalar(@cases) . ' cases, ' . join(' ', map { "$_:$seen{$_}" } sort keys %seen));
cmp_ok(scalar(@cases), '>=', 600, 'there are many cases');
diag("XX000, of the heap as well: $cases[$_]{what}") foreach grep { $says{$_}{h} eq 'XX000' } 0 .. $#cases;
cmp_ok($seen{'00000'}, '>=', 200, 'some are taken');
cmp_ok(scalar(keys %seen), '>=', 20, 'others refused for many reasons');
is( sql('SELECT count(*) FROM ((SELECT s::text FROM s EXCEPT ALL SELECT h::text FROM h)
	UNION ALL (SELECT h::text FROM h EXCEPT ALL SELECT s::text FROM s)) d'), 0, 'the stream has what the heap has');

# Which events a sum fails of depends on those before.
sql(q{CREATE FUNCTION too_much(type text, "column" text) RETURNS SETOF int LANGUAGE plpgsql AS $$
	DECLARE r record; total text := NULL;
	BEGIN
		FOR r IN EXECUTE format('SELECT id, %I::text AS x FROM h WHERE %1$I IS NOT NULL ORDER BY id', "column") LOOP
			BEGIN
				EXECUTE format('SELECT coalesce($1::%s + $2::%1$s, $2::%1$s)::text', type) INTO total USING total, r.x;
			EXCEPTION WHEN others THEN RETURN NEXT r.id;
			END;
		END LOOP;
	END $$});
my %fails = (
	adding   => [ '22003', 'i4 IN (2147483647, -2147483648)' ],
	days     => [ '', 'false' ],
	dividing => [ '22012', 'i4 = 0' ],
	doubling => [ '22003', 'abs(i8::numeric) > 4611686018427387904' ],
	floating => [ '22003', q{id IN (SELECT too_much('float8', 'f8'))} ],
	mended   => [ '22012', q{vc = ''} ],
	parts    => [ '22003 22023', q{jb IS NOT NULL AND jb::text <> '[1, 2]'} ],
	spans    => [ '22008', q{id IN (SELECT too_much('interval', 'iv'))} ],
	squares  => [ '22003', q{n NOT IN ('NaN', 'Infinity') AND length(trunc(n)::text) > 65536} ],
	weeks    => [ '22008', "ts < '4714-11-27 BC'" ],
	words    => [ '', 'false' ]);

# With skip a view is exact but for those events.
sub skips
{
	my ($name, $view) = @_;
	my ($states, $condition) = @{ $fails{$name} };

	weir_same($node, $view, sprintf($query{$name}, "(SELECT * FROM s WHERE ($condition) IS NOT TRUE OFFSET 0) s"),
		"$view leaves out no others");
	my $stopped = $view =~ /_stop/ ? "(SELECT min(id) FROM weir.errors WHERE view = '$view'::regclass)" : 0;
	is( sql(qq{SELECT string_agg(DISTINCT sqlstate, ' ' ORDER BY sqlstate), array_agg((event ->> 'id')::int ORDER BY id)
			FROM weir.errors WHERE view = '$view'::regclass AND id > $stopped}),
		$states eq '' ? '|' : "$states|" . sql("SELECT array_agg(id ORDER BY id) FROM h WHERE $condition"),
		"$view says which");
	return;
}
weir_wait($node, 'views that go on have consumed it');
sql('SELECT weir.checkpoint()');
skips($_, "${_}_skip") foreach sort keys %query;

# With stop it stands before the transaction, of which the event is the first row or
# the second, and goes on when it can.
foreach my $name (sort keys %query)
{
	my $view = "${name}_stop";
	my ($states, $condition) = @{ $fails{$name} };
	my $state = sql("SELECT state FROM weir.views WHERE view = '$view'::regclass");

	if ($states eq '')
	{
		is($state, 'running', "$view runs");
		weir_same($node, $view, sprintf($query{$name}, 's'), "$view is exact");
		next;
	}
	is($state, 'failed', "$view has failed");
	my @prefixes = map {
		my $prefix = sprintf($query{$name}, "(SELECT * FROM s WHERE id < (SELECT min(id) FROM h WHERE $condition) - $_ OFFSET 0) s");
		sql("SELECT count(*) FROM ((TABLE $view EXCEPT ALL $prefix) UNION ALL ($prefix EXCEPT ALL TABLE $view)) d")
	} 0, 1;
	ok((grep { $_ == 0 } @prefixes), "$view has what comes before");
	if ($name eq 'mended')
	{
		sql('CREATE OR REPLACE FUNCTION measured(text) RETURNS int IMMUTABLE LANGUAGE sql AS $$ SELECT length($1) $$');
	}
	else
	{
		sql("ALTER MATERIALIZED VIEW $view SET (on_error = skip)");
	}
	sql("SELECT weir.resume('$view')");
}
weir_wait($node, 'they go on');
sql('SELECT weir.checkpoint()');
foreach my $name (grep { $fails{$_}[0] ne '' } sort keys %query)
{
	if ($name eq 'mended') { weir_same($node, "${name}_stop", sprintf($query{$name}, 's'), 'mended, it has lost nothing') }
	else                   { skips($name, "${name}_stop") }
}

# Up to the ends of time, for a stream that takes what is in the future; a window
# that would reach beyond is an error.
my %extreme = (
	seven => q{SELECT window_end, count(*) AS n FROM f, tumble(ts, '7 days') GROUP BY window_end},
	hopping => q{SELECT window_start, k, count(*) AS n FROM f, hop(ts, '1 day', '3 days') GROUP BY window_start, k},
	sessions => q{SELECT window_start, window_end, count(*) AS n FROM f, session(ts, '1 day') GROUP BY window_start, window_end},
	years => q{SELECT date_trunc('year', ts) AS y, count(*) AS n FROM f GROUP BY 1});
my @early = ('4714-11-24 00:00Z BC', '4714-11-25 12:00Z BC');
my @late  = ('294276-12-31 00:00Z', '294276-12-31 23:59:59.999999Z');
my ($near_first, $near_last) = ('4714-12-20Z BC', '294276-12-20Z');
my %beyond = (
	seven    => [ @early, @late ],
	hopping  => [ @early, @late ],
	sessions => \@late,
	years    => [ @early, $near_first, $near_last, @late ]);
sql(q{CREATE TABLE f (k int, ts timestamptz NOT NULL) USING stream WITH (event_time = ts, max_future = 'infinity')});
sql("CREATE MATERIALIZED VIEW $_ USING continuous WITH (on_error = skip, allowed_lateness = infinity) AS $extreme{$_}")
  foreach sort keys %extreme;
sql("INSERT INTO f VALUES (1, '$_')") foreach $now, $early[0], $late[1], $near_last, $near_first, $late[0], $early[1], $now;
weir_wait($node, 'extreme times');
sql('SELECT weir.checkpoint()');
foreach my $view (sort keys %extreme)
{
	my $list = join(', ', map { "'$_'" } @{ $beyond{$view} });

	(my $query = $extreme{$view}) =~ s/FROM f/FROM (SELECT * FROM f WHERE ts NOT IN ($list) OFFSET 0) f/;
	weir_same($node, $view, $query, "$view at the ends of time");
	is(sql(qq{SELECT count(*) FILTER (WHERE sqlstate = '22008' AND (event ->> 'ts')::timestamptz IN ($list)), count(*)
		FROM weir.errors WHERE view = '$view'::regclass}),
		join('|', (scalar @{ $beyond{$view} }) x 2), 'but for those beyond');
}

# As many columns as there can be.
my @wide = map { "c$_" } 1 .. 1600;
sql('CREATE TABLE w (' . join(', ', map { "$_ int" } @wide) . ') USING stream');
sql('CREATE MATERIALIZED VIEW v USING continuous AS SELECT c1, sum(c1600) AS s, count(c800) AS n FROM w GROUP BY c1');
sql('INSERT INTO w VALUES (' . join(', ', 1 .. 1600) . '), (' . join(', ', ('NULL') x 1600) . ')');
($rc, $out, $err) = $node->psql('postgres', "\\set VERBOSITY sqlstate\nALTER TABLE w ADD COLUMN more int");
like($err, qr/54011/, 'no more columns');
($rc, $out, $err) = $node->psql('postgres', "\\set VERBOSITY sqlstate\nINSERT INTO w VALUES (" . join(', ', 1 .. 1601) . ')');
like($err, qr/42601/, 'no more values');
weir_wait($node, 'wide');
is(sql('SELECT c1, s, n FROM v ORDER BY c1'), "1|1600|1\n||0", '1,600 columns');
is(sql('SELECT sum(c1599) FROM w'), 1599, 'of which each is read');

my %alive = map { $_ => 1 } processes();
is_deeply([ grep { !$alive{$_} } @processes ], [], 'nobody has crashed');
$node->stop('immediate');
$node->start;
weir_patiently($node, 'SELECT 1');
weir_wait($node, 'after a crash');
skips($_, "${_}_skip") foreach grep { $_ ne 'mended' } sort keys %query;
weir_log_is_clean($node);
$node->stop;
done_testing();
