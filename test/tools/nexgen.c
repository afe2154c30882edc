/*
 * nexgen.c - deterministic Nexmark event generator that writes COPY-able rows.
 *
 *   cc -O2 -o nexgen nexgen.c
 *
 * Every event is a pure function of (seed, event number): no state is carried
 * from one event to the next.  So `--table bid` prints exactly the bids that
 * `--table all` contains, any slice (--first/--events) can be produced on its
 * own, and out-of-order emission permutes the rows without changing them.
 *
 * Integer arithmetic only (no libm): the same bytes on every platform.
 *
 * nexgen --help lists the options.  Rates, ids and distributions are those of
 * the Nexmark benchmark's reference generator.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

typedef unsigned __int128 u128;

/* ------------------------------------------------------------- parameters */

enum kind { PERSON, AUCTION, BID, ALL };
enum format { CSV, BINARY };

static struct
{
	uint64_t	seed;
	uint64_t	first;			/* first event number */
	uint64_t	events;			/* how many event numbers */
	uint64_t	rows;			/* stop after that many rows, 0 = no limit */
	uint64_t	rate;			/* events per second of event time */
	int64_t		start_ms;		/* event time of event 0, ms since 1970 */
	uint64_t	ooo_ms;			/* bound of the disorder */
	uint64_t	ooo_ppm;		/* share of the events that are delayed, ppm */
	uint64_t	person, auction, bid;	/* proportions */
	uint64_t	active_people;
	uint64_t	in_flight;
	uint64_t	hot_auction, hot_bidder, hot_seller, hot_channel;
	enum kind	table;
	enum format format;
	bool		narrow;
	bool		header;
	bool		verbose;
	uint64_t	pace_ppm;		/* 0 = as fast as possible, 1e6 = real time */
	const char *out;
}			opt = {
	.seed = 42, .events = 1000000, .rate = 10000,
	.start_ms = INT64_C(1436918400000),	/* 2015-07-15 00:00:00 UTC */
	.ooo_ppm = 1000000,
	.person = 1, .auction = 3, .bid = 46,
	.active_people = 1000, .in_flight = 100,
	.hot_auction = 2, .hot_bidder = 4, .hot_seller = 4, .hot_channel = 2,
	.table = ALL, .format = CSV,
};

/* fixed by the benchmark's definition */
#define FIRST_ID		1000	/* of persons and of auctions */
#define FIRST_CATEGORY	10
#define CATEGORIES		5
#define ID_LEAD			10		/* ids not yet created that may be named */
#define HOT_BATCH		100		/* one hot id per that many ids */
#define CHANNELS		10000
#define AVG_PERSON		200		/* idealised sizes, bytes */
#define AVG_AUCTION		500
#define AVG_BID			100

static const char *const first_names[11] = {
	"Ada", "Bruno", "Carla", "Dimitri", "Elena", "Farid", "Greta", "Hugo",
	"Ines", "Jonas", "Keiko"
};
static const char *const last_names[9] = {
	"Abel", "Brandt", "Castro", "Dubois", "Eriksen", "Fischer", "Garcia",
	"Hansen", "Ivanov"
};
static const char *const cities[10] = {
	"Astoria", "Boulder", "Casper", "Eugene", "Fresno", "Laramie", "Mesa",
	"Nampa", "Spokane", "Tucson"
};
/* half of the people live where query 3 looks: OR, ID, CA */
static const char *const states[6] = {"AZ", "CA", "ID", "OR", "WA", "WY"};

static const char *const hot_channels[4] = {"Google", "Facebook", "Baidu", "Apple"};

static void
die(const char *what, const char *arg)
{
	fprintf(stderr, "nexgen: %s%s%s\n", what, arg ? ": " : "", arg ? arg : "");
	exit(1);
}

/* ----------------------------------------------------------------- random */

typedef struct { uint64_t s; } Rng;

static inline uint64_t
mix(uint64_t z)
{
	z = (z ^ (z >> 30)) * UINT64_C(0xBF58476D1CE4E5B9);
	z = (z ^ (z >> 27)) * UINT64_C(0x94D049BB133111EB);
	return z ^ (z >> 31);
}

static inline uint64_t
rnd(Rng *r)
{
	r->s += UINT64_C(0x9E3779B97F4A7C15);
	return mix(r->s);
}

/* uniform in [0, n) */
static inline uint64_t
below(Rng *r, uint64_t n)
{
	return (uint64_t) (((u128) rnd(r) * n) >> 64);
}

static inline Rng
rng_for(uint64_t seed, uint64_t stream)
{
	Rng			r = {mix(seed ^ UINT64_C(0x6E65786D61726B21)) ^ mix(stream * UINT64_C(0xD1B54A32D192ED03) + 1)};

	return r;
}

/*
 * Prices: round(100 * 10^(6u)), u uniform in [0,1): log-uniform over
 * [1.00, 1000000.00] in cents.  A table of 4096 steps, linear in between
 * (relative error below 2e-6).
 */
#define PSTEPS 4096
static uint64_t price_tab[PSTEPS + 1];	/* cents << 20 */

static void
init_prices(void)
{
	const uint64_t ratio = UINT64_C(4627267162739981179);	/* 10^(6/4096) << 62 */
	uint64_t	acc = UINT64_C(100) << 32;

	for (int i = 0; i <= PSTEPS; i++)
	{
		price_tab[i] = acc >> 12;
		acc = (uint64_t) (((u128) acc * ratio) >> 62);
	}
}

static inline uint64_t
price(Rng *r)
{
	uint64_t	x = rnd(r);
	uint32_t	cell = x >> 52;
	uint64_t	frac = (x >> 32) & 0xFFFFF;
	uint64_t	lo = price_tab[cell];
	uint64_t	p = lo + (((price_tab[cell + 1] - lo) * frac) >> 20);

	return (p + (1 << 19)) >> 20;
}

/* -------------------------------------------------------------- strings */

#define POOL (1 << 20)
static char pool[POOL];			/* letters, from which `extra` is cut */
static char letters[4096];		/* 0: the special character, else a letter */

static void
init_strings(void)
{
	Rng			r = rng_for(opt.seed, UINT64_C(1) << 62);

	for (int i = 0; i < POOL; i++)
		pool[i] = 'a' + below(&r, 26);
	for (int i = 0; i < 4096; i++)	/* special with probability 1/13 */
		letters[i] = i < 315 ? 0 : 'a' + (i - 315) % 26;
}

/* 3 .. max-1 characters, each the special one with probability 1/13 */
static int
word(Rng *r, char *dst, int max, char special)
{
	int			len = 3 + below(r, max - 3);
	uint64_t	bits = 0;

	for (int i = 0; i < len; i++)
	{
		char		c;

		if (i % 5 == 0)
			bits = rnd(r);
		c = letters[bits & 4095];
		dst[i] = c ? c : special;
		bits >>= 12;
	}
	return len;
}

/* the same, blanks at both ends cut off */
static int
words(Rng *r, char *dst, int max)
{
	int			n = word(r, dst, max, ' ');
	int			lead = 0;

	while (n > 0 && dst[n - 1] == ' ')
		n--;
	while (lead < n && dst[lead] == ' ')
		lead++;
	if (lead)
		memmove(dst, dst + lead, n - lead);
	return n - lead;
}

/* length of `extra`, so that the event has the wanted size +- 20 % on average */
static int
extra_len(Rng *r, int size, int wanted)
{
	int			rest,
				delta;

	if (size > wanted)
		return 0;
	rest = wanted - size;
	delta = (rest * 2 + 5) / 10;
	return rest - delta + (delta ? (int) below(r, 2 * delta) : 0);
}

/* ----------------------------------------------------- channels and URLs */

typedef struct
{
	char		chan[16];
	char		url[96];
	uint8_t		nchan, nurl;
}			Channel;

static Channel hot[4], cold[CHANNELS];

static void
base_url(Rng *r, Channel *c)
{
	char		d[3][8];
	int			n[3];

	for (int i = 0; i < 3; i++)
		n[i] = word(r, d[i], 5, '_');
	c->nurl = sprintf(c->url, "https://www.nexmark.com/%.*s/%.*s/%.*s/item.htm?query=1",
					  n[0], d[0], n[1], d[1], n[2], d[2]);
}

static uint32_t
bit_reverse(uint32_t v)
{
	uint32_t	o = 0;

	for (int i = 0; i < 32; i++)
		o |= ((v >> i) & 1) << (31 - i);
	return o;
}

static void
init_channels(void)
{
	Rng			r = rng_for(0, UINT64_C(2) << 62);	/* the same for all seeds */

	for (int i = 0; i < 4; i++)
	{
		hot[i].nchan = sprintf(hot[i].chan, "%s", hot_channels[i]);
		base_url(&r, &hot[i]);
	}
	for (int i = 0; i < CHANNELS; i++)
	{
		Channel    *c = &cold[i];

		c->nchan = sprintf(c->chan, "channel-%d", i);
		base_url(&r, c);
		if (below(&r, 10) > 0)	/* 9 of 10 name their channel in the URL */
		{
			int64_t		id = (int32_t) bit_reverse(i);

			c->nurl += sprintf(c->url + c->nurl, "&channel_id=%" PRId64, id < 0 ? -id : id);
		}
	}
}

/* ---------------------------------------------------------------- output */

typedef struct
{
	int			fd;
	size_t		len;
	uint64_t	rows;
	char	   *buf;
}			Sink;

#define BUFSZ	(1 << 20)
#define ROWMAX	4096			/* no row is longer */

static void
sink_flush(Sink *s)
{
	for (size_t done = 0; done < s->len;)
	{
		ssize_t		n = write(s->fd, s->buf + done, s->len - done);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			die("write", strerror(errno));
		done += n;
	}
	s->len = 0;
}

static inline char *
put_digits(char *p, uint64_t v)
{
	static const char pairs[201] =
		"00010203040506070809101112131415161718192021222324252627282930313233343536373839"
		"40414243444546474849505152535455565758596061626364656667686970717273747576777879"
		"8081828384858687888990919293949596979899";
	char		tmp[20];
	int			i = 20;

	while (v >= 100)
	{
		memcpy(tmp + (i -= 2), pairs + 2 * (v % 100), 2);
		v /= 100;
	}
	if (v >= 10)
		memcpy(tmp + (i -= 2), pairs + 2 * v, 2);
	else
		tmp[--i] = '0' + v;
	memcpy(p, tmp + i, 20 - i);
	return p + (20 - i);
}

static inline char *
be32(char *p, uint32_t v)
{
	v = __builtin_bswap32(v);
	memcpy(p, &v, 4);
	return p + 4;
}

static inline char *
be64(char *p, uint64_t v)
{
	v = __builtin_bswap64(v);
	memcpy(p, &v, 8);
	return p + 8;
}

static inline char *
put_int(char *p, uint64_t v)
{
	if (opt.format == BINARY)
		return be64(be32(p, 8), v);
	p = put_digits(p, v);
	*p++ = ',';
	return p;
}

static inline char *
put_text(char *p, const char *s, int n)
{
	if (opt.format == BINARY)
		p = be32(p, n);
	else if (n == 0)
	{
		memcpy(p, "\"\",", 3);	/* an empty string, not a null */
		return p + 3;
	}
	memcpy(p, s, n);
	p += n;
	if (opt.format == CSV)
		*p++ = ',';
	return p;
}

static inline char *
put_null(char *p, int n)
{
	for (; n > 0; n--)
		if (opt.format == BINARY)
			p = be32(p, UINT32_MAX);
		else
			*p++ = ',';
	return p;
}

static void
civil(int64_t days, int *y, int *m, int *d)
{
	/* days since 1970-01-01, proleptic Gregorian, from the 400-year cycle */
	int64_t		z = days + 719468;
	int64_t		era = (z >= 0 ? z : z - 146096) / 146097;
	int			doe = z - era * 146097;
	int			yoe = (doe - doe / 1460 + doe / 36524 - doe / 146096) / 365;
	int			doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
	int			mp = (5 * doy + 2) / 153;

	*d = doy - (153 * mp + 2) / 5 + 1;
	*m = mp < 10 ? mp + 3 : mp - 9;
	*y = yoe + era * 400 + (*m <= 2);
}

static inline char *
put_time(char *p, int64_t ms)
{
	static int64_t cached = INT64_MIN;
	static char prefix[64];		/* "YYYY-MM-DD HH:MM:" */
	int64_t		minute = ms / 60000;
	int			rest = ms % 60000;

	if (opt.format == BINARY)
		return be64(be32(p, 8), (uint64_t) ((ms - INT64_C(946684800000)) * 1000));
	if (minute != cached)
	{
		int			y, m, d;

		civil(minute / 1440, &y, &m, &d);
		snprintf(prefix, sizeof prefix, "%04d-%02d-%02d %02d:%02d:", y, m, d,
				 (int) (minute / 60 % 24), (int) (minute % 60));
		cached = minute;
	}
	memcpy(p, prefix, 17);
	p[17] = '0' + rest / 10000;
	p[18] = '0' + rest / 1000 % 10;
	p[19] = '.';
	p[20] = '0' + rest / 100 % 10;
	p[21] = '0' + rest / 10 % 10;
	p[22] = '0' + rest % 10;
	p[23] = ',';
	return p + 24;
}

static const char *const columns[3] = {
	"id,name,email_address,credit_card,city,state,date_time,extra",
	"id,item_name,description,initial_bid,reserve,date_time,expires,seller,category,extra",
	"auction,bidder,price,channel,url,date_time,extra"
};
static const int ncolumns[3] = {8, 10, 7};

/* ---------------------------------------------------------------- events */

static uint64_t total;			/* sum of the proportions */

static inline int64_t
event_time(uint64_t n)
{
	return opt.start_ms + (int64_t) ((u128) n * 1000 / opt.rate);
}

static inline int64_t
event_time_fast(uint64_t n)
{
	return n < UINT64_C(1) << 53 ? opt.start_ms + (int64_t) (n * 1000 / opt.rate) : event_time(n);
}

static inline enum kind
event_kind(uint64_t n)
{
	uint64_t	o = n % total;

	return o < opt.person ? PERSON : o < opt.person + opt.auction ? AUCTION : BID;
}

/* the newest person (auction) at event n, counted from 0 */
static inline uint64_t
last_person(uint64_t n)
{
	uint64_t	o = n % total;

	return n / total * opt.person + (o < opt.person ? o : opt.person - 1);
}

static inline uint64_t
last_auction(uint64_t n)
{
	uint64_t	e = n / total,
				o = n % total;

	if (o < opt.person)
		return e * opt.auction - 1; /* the last one of the cycle before */
	if (o < opt.person + opt.auction)
		return e * opt.auction + o - opt.person;
	return (e + 1) * opt.auction - 1;
}

/* one of the active people, or one of the next few to come */
static inline uint64_t
any_person(Rng *r, uint64_t n)
{
	uint64_t	people = last_person(n) + 1;
	uint64_t	active = people < opt.active_people ? people : opt.active_people;

	return people - active + below(r, active + ID_LEAD);
}

/* one of the auctions in flight, or one of the next few to come */
static inline uint64_t
any_auction(Rng *r, uint64_t n)
{
	uint64_t	last = last_auction(n);
	uint64_t	oldest = last > opt.in_flight ? last - opt.in_flight : 0;

	return oldest + below(r, last - oldest + 1 + ID_LEAD);
}

static char *
put_person(char *p, Rng *r, uint64_t n)
{
	char		t[64];
	int			size = 8,
				k, l;
	const char *f = first_names[below(r, 11)];
	const char *g = last_names[below(r, 9)];
	const char *city,
			   *state;

	p = put_int(p, FIRST_ID + last_person(n));
	k = sprintf(t, "%s %s", f, g);
	size += k;
	p = put_text(p, t, k);
	k = word(r, t, 7, '_');
	t[k++] = '@';
	k += word(r, t + k, 5, '_');
	memcpy(t + k, ".com", 4);
	k += 4;
	size += k;
	p = put_text(p, t, k);
	k = 0;
	for (int i = 0; i < 4; i++)
		k += sprintf(t + k, i ? " %04d" : "%04d", (int) below(r, 10000));
	size += k;
	p = put_text(p, t, k);
	city = cities[below(r, 10)];
	state = states[below(r, 6)];
	k = strlen(city);
	l = strlen(state);
	size += k + l;
	p = put_text(p, city, k);
	p = put_text(p, state, l);
	p = put_time(p, event_time_fast(n));
	k = extra_len(r, size, AVG_PERSON);
	return put_text(p, pool + below(r, POOL - k), k);
}

static char *
put_auction(char *p, Rng *r, uint64_t n)
{
	char		name[24],
				desc[104];
	int			nname, ndesc, k;
	int64_t		ts = event_time_fast(n);
	uint64_t	seller, initial, reserve, category, horizon, expires;

	/* 3 of 4 auctions are opened by the hot seller */
	if (below(r, opt.hot_seller) > 0)
		seller = last_person(n) / HOT_BATCH * HOT_BATCH;
	else
		seller = any_person(r, n);
	category = FIRST_CATEGORY + below(r, CATEGORIES);
	initial = price(r);
	reserve = initial + price(r);
	/* on average it lasts for as long as it takes to open in_flight auctions */
	horizon = event_time_fast(n + opt.in_flight * total / opt.auction) - ts;
	expires = ts + 1 + below(r, horizon ? 2 * horizon : 1);
	nname = words(r, name, 20);
	ndesc = words(r, desc, 100);

	p = put_int(p, FIRST_ID + last_auction(n));
	p = put_text(p, name, nname);
	p = put_text(p, desc, ndesc);
	p = put_int(p, initial);
	p = put_int(p, reserve);
	p = put_time(p, ts);
	p = put_time(p, expires);
	p = put_int(p, FIRST_ID + seller);
	p = put_int(p, category);
	k = extra_len(r, 8 + nname + ndesc + 5 * 8, AVG_AUCTION);
	return put_text(p, pool + below(r, POOL - k), k);
}

static inline char *
put_bid(char *p, Rng *r, uint64_t n)
{
	uint64_t	auction, bidder, cents;
	const Channel *c;
	int			k;

	/* half of the bids go to the hot auction, */
	if (below(r, opt.hot_auction) > 0)
		auction = last_auction(n) / HOT_BATCH * HOT_BATCH;
	else
		auction = any_auction(r, n);
	/* 3 of 4 come from the hot bidder (never the hot seller), */
	if (below(r, opt.hot_bidder) > 0)
		bidder = last_person(n) / HOT_BATCH * HOT_BATCH + 1;
	else
		bidder = any_person(r, n);
	cents = price(r);
	/* half through one of the four hot channels */
	if (below(r, opt.hot_channel) > 0)
		c = &hot[below(r, 4)];
	else
		c = &cold[below(r, CHANNELS)];

	p = put_int(p, FIRST_ID + auction);
	p = put_int(p, FIRST_ID + bidder);
	p = put_int(p, cents);
	if (opt.narrow)
		return put_time(p, event_time_fast(n));
	p = put_text(p, c->chan, c->nchan);
	p = put_text(p, c->url, c->nurl);
	p = put_time(p, event_time_fast(n));
	k = extra_len(r, 4 * 8, AVG_BID);
	return put_text(p, pool + below(r, POOL - k), k);
}

static Sink sinks[3];			/* by kind; wide output uses the first only */
static bool wide;
static uint64_t emitted;

static void
emit(uint64_t n)
{
	enum kind	k = event_kind(n);
	Rng			r;
	Sink	   *s;
	char	   *p;

	if (opt.table != ALL && opt.table != k)
		return;
	s = &sinks[wide ? 0 : k];
	p = s->buf + s->len;
	r = rng_for(opt.seed, n);

	if (opt.format == BINARY)
	{
		int			cols = wide ? 26 : opt.narrow ? 4 : ncolumns[k];

		*p++ = 0;
		*p++ = cols;
	}
	if (wide)
	{
		/* event_type, then the columns of all three tables */
		if (opt.format == BINARY)
			p = be32(be32(p, 4), k);
		else
			p = put_int(p, k);
		p = put_null(p, k == PERSON ? 0 : k == AUCTION ? 8 : 18);
	}
	p = k == PERSON ? put_person(p, &r, n) :
		k == AUCTION ? put_auction(p, &r, n) : put_bid(p, &r, n);
	if (wide)
		p = put_null(p, k == PERSON ? 17 : k == AUCTION ? 7 : 0);
	if (opt.format == CSV)
		p[-1] = '\n';			/* in place of the last comma */
	s->len = p - s->buf;
	s->rows++;
	emitted++;
	if (s->len > BUFSZ - ROWMAX)
		sink_flush(s);
}

static void
open_sink(Sink *s, enum kind k)
{
	static const char *const names[3] = {"person", "auction", "bid"};
	char		path[4096];
	char	   *p;

	s->buf = malloc(BUFSZ);
	if (!s->buf)
		die("out of memory", NULL);
	s->fd = STDOUT_FILENO;
	if (opt.out)
	{
		if (opt.table == ALL)
			snprintf(path, sizeof path, "%s/%s.%s", opt.out, names[k],
					 opt.format == CSV ? "csv" : "bin");
		else
			snprintf(path, sizeof path, "%s", opt.out);
		s->fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0644);
		if (s->fd < 0)
			die(path, strerror(errno));
	}
	p = s->buf;
	if (opt.format == BINARY)
	{
		memcpy(p, "PGCOPY\n\377\r\n\0\0\0\0\0\0\0\0\0", 19);
		p += 19;
	}
	else if (opt.header && wide)
		p += sprintf(p, "event_type,p_id,p_name,p_email_address,p_credit_card,p_city,p_state,"
					 "p_date_time,p_extra,a_id,a_item_name,a_description,a_initial_bid,a_reserve,"
					 "a_date_time,a_expires,a_seller,a_category,a_extra,b_auction,b_bidder,b_price,"
					 "b_channel,b_url,b_date_time,b_extra\n");
	else if (opt.header)
		p += sprintf(p, "%s\n", opt.narrow ? "auction,bidder,price,date_time" : columns[k]);
	s->len = p - s->buf;
}

/* --------------------------------------------------------------- options */

static const char usage[] =
"usage: nexgen [options]                                            (defaults)\n"
"  --seed N               same seed, same bytes                           42\n"
"  --events M             event numbers (persons+auctions+bids)      1000000\n"
"  --first N              first event number                               0\n"
"  --rows N               stop after N rows                         no limit\n"
"  --rate EPS             events per second of event time              10000\n"
"  --start-ts T           ms since 1970, 'YYYY-MM-DD HH:MM:SS[.mmm]'\n"
"                         (UTC), or now                  2015-07-15 00:00:00\n"
"  --out-of-order-ms K    emit events up to K ms late                      0\n"
"  --out-of-order-prob P  share of the events that are delayed             1\n"
"  --table T              person | auction | bid | all                   all\n"
"  --format F             csv | binary (PostgreSQL COPY)                 csv\n"
"  --narrow               bid as auction,bidder,price,date_time\n"
"  --header               CSV header line\n"
"  --out PATH             file, or with --table all a directory       stdout\n"
"  --pace X               emit at X times the event rate           unlimited\n"
"  --active-people N      (1000)    --in-flight-auctions N          (100)\n"
"  --hot-auction-ratio N  (2)       --hot-bidder-ratio N            (4)\n"
"  --hot-seller-ratio N   (4)       --hot-channel-ratio N           (2)\n"
"  --proportions P:A:B    (1:3:46)  --verbose                rows/s on stderr\n"
"`--table all` without --out prints one wide row per event, in arrival order:\n"
"event_type (0 person, 1 auction, 2 bid), 8 + 10 + 7 columns, others null.\n";

static uint64_t
number(const char *name, const char *v)
{
	char	   *end;
	unsigned long long x;

	if (!v)
		die("value missing", name);
	errno = 0;
	x = strtoull(v, &end, 10);
	if (errno || end == v || *end || *v == '-')
		die("not a number", v);
	return x;
}

static uint64_t
ppm(const char *name, const char *v)
{
	char	   *end;
	double		x;

	if (!v)
		die("value missing", name);
	x = strtod(v, &end);
	if (end == v || *end || !(x >= 0) || x > 1e9)
		die("not a number", v);
	return (uint64_t) (x * 1e6 + 0.5);
}

static int64_t
timestamp(const char *v)
{
	struct tm	tm = {0};
	const char *rest;
	struct timespec ts;

	if (!v)
		die("value missing", "--start-ts");
	if (strcmp(v, "now") == 0)
	{
		clock_gettime(CLOCK_REALTIME, &ts);
		return (int64_t) ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
	}
	if (strspn(v, "0123456789") == strlen(v))
		return (int64_t) number("--start-ts", v);
	if ((rest = strptime(v, "%Y-%m-%d %H:%M:%S", &tm)) ||
		(rest = strptime(v, "%Y-%m-%dT%H:%M:%S", &tm)))
	{
		int64_t		ms = (int64_t) timegm(&tm) * 1000;

		if (*rest == '.')
		{
			int			digits = strspn(rest + 1, "0123456789");
			int			f = 0;

			for (int i = 0; i < 3; i++)
				f = f * 10 + (i < digits ? rest[1 + i] - '0' : 0);
			ms += f;
			rest += 1 + digits;
		}
		if (*rest == 0 || strcmp(rest, "Z") == 0)
			return ms;
	}
	die("not a timestamp", v);
	return 0;
}

static void
options(int argc, char **argv)
{
	for (int i = 1; i < argc; i++)
	{
		const char *a = argv[i];
		const char *v = i + 1 < argc ? argv[i + 1] : NULL;

#define IS(name) (strcmp(a, name) == 0)
#define NUM(name, field) if (IS(name)) { opt.field = number(a, v); i++; continue; }
		NUM("--seed", seed)
		NUM("--events", events)
		NUM("--first", first)
		NUM("--rows", rows)
		NUM("--rate", rate)
		NUM("--out-of-order-ms", ooo_ms)
		NUM("--active-people", active_people)
		NUM("--in-flight-auctions", in_flight)
		NUM("--hot-auction-ratio", hot_auction)
		NUM("--hot-bidder-ratio", hot_bidder)
		NUM("--hot-seller-ratio", hot_seller)
		NUM("--hot-channel-ratio", hot_channel)
		if (IS("--out-of-order-prob"))
			opt.ooo_ppm = ppm(a, v), i++;
		else if (IS("--pace"))
			opt.pace_ppm = ppm(a, v), i++;
		else if (IS("--start-ts"))
			opt.start_ms = timestamp(v), i++;
		else if (IS("--proportions"))
		{
			if (!v || sscanf(v, "%" SCNu64 ":%" SCNu64 ":%" SCNu64, &opt.person, &opt.auction, &opt.bid) != 3)
				die("--proportions wants P:A:B", v);
			i++;
		}
		else if (IS("--table"))
		{
			if (!v)
				die("value missing", a);
			opt.table = !strcmp(v, "person") ? PERSON : !strcmp(v, "auction") ? AUCTION :
				!strcmp(v, "bid") ? BID : !strcmp(v, "all") ? ALL : (die("no such table", v), ALL);
			i++;
		}
		else if (IS("--format"))
		{
			if (!v)
				die("value missing", a);
			opt.format = !strcmp(v, "csv") ? CSV : !strcmp(v, "binary") ? BINARY :
				(die("no such format", v), CSV);
			i++;
		}
		else if (IS("--out"))
			opt.out = v, i++;
		else if (IS("--narrow"))
			opt.narrow = true;
		else if (IS("--header"))
			opt.header = true;
		else if (IS("--verbose"))
			opt.verbose = true;
		else
		{
			fputs(usage, IS("--help") ? stdout : stderr);
			exit(IS("--help") ? 0 : 1);
		}
	}
	if (!opt.rate || !opt.person || !opt.auction || !opt.bid || !opt.active_people ||
		!opt.hot_auction || !opt.hot_bidder || !opt.hot_seller || !opt.hot_channel)
		die("rates, ratios and proportions must be at least 1", NULL);
	if (opt.narrow && opt.table != BID)
		die("--narrow goes with --table bid", NULL);
	if (opt.start_ms < 0)
		die("--start-ts before 1970", NULL);
}

static double
now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec + t.tv_nsec * 1e-9;
}

static void
flush_all(void)
{
	for (int i = 0; i < 3; i++)
		if (sinks[i].buf)
			sink_flush(&sinks[i]);
}

/* sleep until the step's turn; what is written so far goes out first */
static void
keep_pace(uint64_t step, double t0)
{
	double		due = t0 + (double) step / (double) opt.rate * 1e6 / (double) opt.pace_ppm;
	double		ahead = due - now();

	if (ahead > 0.0005)
	{
		struct timespec t = {(time_t) ahead, (long) ((ahead - (double) (time_t) ahead) * 1e9)};

		flush_all();
		nanosleep(&t, NULL);
	}
}

int
main(int argc, char **argv)
{
	uint64_t	window,			/* disorder in events */
				ring = 1,
				step;
	uint64_t   *head = NULL,	/* of the list of events due at a step, +1 */
			   *next = NULL;
	double		t0;

	options(argc, argv);
	total = opt.person + opt.auction + opt.bid;
	init_prices();
	init_strings();
	init_channels();

	wide = opt.table == ALL && !opt.out;
	if (opt.table == ALL && opt.out && mkdir(opt.out, 0755) < 0 && errno != EEXIST)
		die(opt.out, strerror(errno));
	for (int k = PERSON; k <= BID; k++)
		if (wide ? k == PERSON : opt.table == ALL || (int) opt.table == k)
			open_sink(&sinks[k], k);

	/*
	 * Event n is emitted at step n + d, d uniform in [0, window]: no event
	 * comes after one whose time is more than ooo_ms ahead of its own.
	 */
	window = (uint64_t) ((u128) opt.ooo_ms * opt.rate / 1000);
	while (ring <= window)
		ring *= 2;
	if (window)
	{
		head = calloc(ring, sizeof *head);
		next = calloc(ring, sizeof *next);
		if (!head || !next)
			die("out of memory", NULL);
	}

	t0 = now();
	for (step = 0; step < opt.events + window; step++)
	{
		if (opt.pace_ppm)
			keep_pace(step, t0);
		if (!window)
			emit(opt.first + step);
		else
		{
			uint64_t	due;

			if (step < opt.events)
			{
				Rng			r = rng_for(opt.seed ^ UINT64_C(0x0DDE0DDE), opt.first + step);
				uint64_t	at = step;

				if (below(&r, 1000000) < opt.ooo_ppm)
					at += below(&r, window + 1);
				next[step & (ring - 1)] = head[at & (ring - 1)];
				head[at & (ring - 1)] = step + 1;
			}
			due = head[step & (ring - 1)];
			head[step & (ring - 1)] = 0;
			for (; due && (!opt.rows || emitted < opt.rows); due = next[(due - 1) & (ring - 1)])
				emit(opt.first + due - 1);
		}
		if (opt.rows && emitted >= opt.rows)
			break;
	}
	for (int k = PERSON; k <= BID; k++)
		if (sinks[k].buf)
		{
			if (opt.format == BINARY)
			{
				memcpy(sinks[k].buf + sinks[k].len, "\377\377", 2);
				sinks[k].len += 2;
			}
			sink_flush(&sinks[k]);
			if (opt.out && close(sinks[k].fd) < 0)
				die("close", strerror(errno));
		}
	free(head);
	free(next);
	if (opt.verbose)
		fprintf(stderr, "nexgen: %" PRIu64 " events, %" PRIu64 " rows, %.3f s, %.2f M events/s\n",
				step, emitted, now() - t0, step / (now() - t0) / 1e6);
	return 0;
}
