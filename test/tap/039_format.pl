# A chunk of a format that this release does not know, as a newer one would
# leave behind: refused with what to do about it, by readers and by views, and
# nothing is lost.  A record whose number has lost a byte is damaged: it is not
# taken for one that the view has consumed, whose rows nobody need look at.
use strict;
use warnings;

use lib 'test/tap';

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use WeirTest;

my $node = weir_node('format');
my $query = 'SELECT k, count(*) AS n FROM s GROUP BY k';

$node->safe_psql('postgres', qq{
	CREATE TABLE s (k int) USING stream;
	CREATE TABLE other (k int) USING stream;
	CREATE MATERIALIZED VIEW v USING continuous AS $query;
	CREATE MATERIALIZED VIEW o USING continuous AS SELECT count(*) AS n FROM other;
	SELECT weir.wait_for(), weir.pause('v');
	INSERT INTO s SELECT i % 3 FROM generate_series(1, 100) i;
	INSERT INTO other VALUES (1)});
my $path = $node->data_dir . '/' . $node->safe_psql('postgres', q{SELECT pg_relation_filepath('s')});

# A byte of the chunk in the first line of the first page, which is behind 24
# bytes of a heap tuple's header.
my $set_byte = sub {
	my ($place, $new) = @_;
	my ($line, $old);

	$node->stop;
	open(my $file, '+<:raw', $path) or die "$path: $!";
	seek($file, 24, 0);
	read($file, $line, 4);
	my $at = (unpack('L', $line) & 0x7fff) + 24 + $place;
	seek($file, $at, 0);
	read($file, $old, 1);
	seek($file, $at, 0);
	print $file chr($new);
	close($file);
	$node->start;
	return ord($old);
};
my $set_format = sub { return $set_byte->(4, $_[0]) };
my $format = $set_format->(200);
is($format, 1, 'the format there is');
for (['200' => '0A000'], ['0' => 'XX001'])
{
	my ($new, $code) = @$_;

	$set_format->($new) if $new != 200;
	my ($ret, $out, $err) = $node->psql('postgres', "\\set VERBOSITY verbose\nSELECT * FROM s");
	like($err, qr/ERROR:  $code: log of stream "s" has a chunk of unknown format $new\nDETAIL:  It is \(0,1\)\.\nHINT:  .*newer release/, "format $new is refused");
	$node->safe_psql('postgres', q{SELECT weir.resume('v')});
	ok($node->poll_query_until('postgres', q{SELECT error ~ 'unknown format' FROM weir.views WHERE view = 'v'::regclass}), 'the view says so, too');
	is($node->safe_psql('postgres', q{INSERT INTO other VALUES (2); SELECT weir.wait_for('o'); SELECT n = (SELECT count(*) FROM other) FROM o}),
		"t\nt", 'others go on');
	is($node->safe_psql('postgres', 'SELECT count(*) FROM v'), '0', 'its rows are those it had');
	$node->safe_psql('postgres', q{SELECT weir.pause('v')});
}
$set_format->($format);

# behind 32 bytes of header the record begins with its number, lowest byte first
my $byte = $set_byte->(32 + 3, 0);
isnt($byte, 0, 'the number there is');
$node->safe_psql('postgres', q{SELECT weir.resume('v')});
ok($node->poll_query_until('postgres', q{SELECT error ~ 'log of stream "s" is damaged' OR lag_events = 0 FROM weir.views WHERE view = 'v'::regclass}), 'the record is looked at');
like($node->safe_psql('postgres', q{SELECT error FROM weir.views WHERE view = 'v'::regclass}), qr/damaged/, 'and is not passed over');
$node->safe_psql('postgres', q{SELECT weir.pause('v')});
$set_byte->(32 + 3, $byte);

$node->safe_psql('postgres', q{SELECT weir.resume('v')});
weir_wait($node, 'known again');
is($node->safe_psql('postgres', 'SELECT count(*), sum(n) FROM v'), '3|100', 'nothing is lost');
weir_same($node, 'v', $query, 'exact');

weir_log_is_clean($node);
$node->stop;
done_testing();
