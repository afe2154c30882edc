/*-------------------------------------------------------------------------
 *
 * spans.c
 *	  Windows that depend on the rows of their key: sessions, and windows that
 *	  count rows.
 *
 * Relies on: rows come in log order, and "before" never falls along the log; so
 * a row never finds a session final for it that was not so for an earlier row.
 *
 * Saved bytes of a key, integers in the byte order of the machine, all parts
 * MAXALIGNed:
 *
 *	 0	uint32	number of spans
 *	 4	uint32	zero
 *	 8	int64	rows of the key so far (windows that count), else 0
 *	16	the spans, by start (sessions) or end, each: int64 start, int64 end,
 *		int64 mark, uint64 length, and so many bytes of saved aggregates
 *
 * start and end of a session: time of its first event, time of its last event
 * plus the gap; no two sessions of a key overlap or touch.  Of a window that
 * counts rows: the numbers of its first row, and of the first after it.
 *
 * A session that is in the heap stays here for a while: an event that would
 * have joined it is late, however new it is.  It is forgotten when "before" is
 * two gaps after its end.  From then on no event can reach it: one that is not
 * late by itself is newer, and one that is may still lie within a live session,
 * but makes it begin earlier only if it is less than two gaps before "before".
 * So what an event becomes never depends on what has been forgotten.
 *
 * A live span whose row has not come in this batch stays as bytes.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "common/int.h"
#include "miscadmin.h"
#include "utils/memutils.h"

#include "debug.h"
#include "spans.h"
#include "window.h"

typedef struct SavedHeader
{
	uint32 nspans;
	uint32 zero;
	int64 rows;
} SavedHeader;

typedef struct SavedSpan
{
	int64 start;
	int64 end;
	int64 mark;
	uint64 length;
} SavedSpan;

StaticAssertDecl(sizeof(SavedHeader) == 16, "saved spans have holes");
StaticAssertDecl(sizeof(SavedSpan) == 32, "saved span has holes");

typedef struct LiveSpan
{
	int64 start;
	int64 end;
	int64 mark;
	void *live;		   /* NULL: as it is in bytes */
	const char *bytes; /* saved aggregates */
	Size length;
} LiveSpan;

/* The first span and its aggregates need no memory of their own. */
typedef struct LiveSpans
{
	int nspans;
	int size;
	LiveSpan *spans;
	int64 rows;
	bool block_used;
	LiveSpan first;
} LiveSpans;

#define live_block(l) ((char *) (l) + MAXALIGN(sizeof(LiveSpans)))

struct WeirSpans
{
	const WeirViewPlan *plan;
	WeirAggs *aggs;
	bool sessions;
	int64 size;
	int64 slide;
};

WeirSpans *
weir_spans_create(const WeirViewPlan *plan, WeirAggs *aggs)
{
	WeirSpans *s = palloc0(sizeof(WeirSpans));

	s->plan = plan;
	s->aggs = aggs;
	s->sessions = plan->window.kind == WEIR_WINDOW_SESSION;
	s->size = plan->window.size;
	s->slide = plan->window.slide;
	return s;
}


/* ---------- saved bytes ---------- */

typedef struct Cursor
{
	const char *at;
	const char *end;
	uint32 left;
	int64 rows;
} Cursor;

static void
cursor_start(Cursor *c, const char *bytes, Size len)
{
	const SavedHeader *h = (const SavedHeader *) bytes;

	Ensure(len >= sizeof(SavedHeader), "saved windows of a key are truncated");
	c->left = h->nspans;
	c->rows = h->rows;
	c->at = bytes + sizeof(SavedHeader);
	c->end = bytes + len;
}

/* The next span and its aggregates; false: no more. */
static bool
cursor_next(Cursor *c, const SavedSpan **span, const char **aggs)
{
	if (c->left == 0)
	{
		Ensure(c->at == c->end, "saved windows of a key have a wrong length");
		return false;
	}
	Ensure(c->end - c->at >= sizeof(SavedSpan),
		   "saved windows of a key are truncated");
	*span = (const SavedSpan *) c->at;
	*aggs = c->at + sizeof(SavedSpan);
	Ensure((*span)->length == MAXALIGN((*span)->length) &&
			   (*span)->length <= (uint64) (c->end - *aggs),
		   "saved windows of a key are truncated");
	c->at = *aggs + (*span)->length;
	c->left--;
	return true;
}

/*
 * The value of "before" from which on an event of this time cannot make a session
 * begin earlier any more, and a session in the heap that ended then is forgotten.
 */
static int64
forget_at(const WeirSpans *s, int64 time)
{
	int64 at;

	/* by arrival nobody is late, so nobody asks for what was */
	if (s->plan->window.by_arrival)
		return time;
	if (pg_add_s64_overflow(time, s->size, &at) ||
		pg_add_s64_overflow(at, s->size, &at))
		return PG_INT64_MAX - 2;
	return at;
}

static bool
may_be_forgotten(const WeirSpans *s, const SavedSpan *span,
				 const WeirSpanLimits *limits)
{
	if (span->mark == WEIR_SPAN_OPEN || span->mark > limits->swept)
		return false;
	return !s->sessions || forget_at(s, span->end) <= limits->before;
}

int64
weir_spans_due(WeirSpans *s, const char *bytes, Size len, int64 closed)
{
	const SavedSpan *span;
	const char *aggs;
	int64 due = PG_INT64_MAX;
	int64 past = PG_INT64_MAX; /* nothing to wait for */
	Cursor c;

	cursor_start(&c, bytes, len);
	while (cursor_next(&c, &span, &aggs))
	{
		if (span->mark == WEIR_SPAN_OPEN)
			continue;
		if (span->mark > closed || !s->sessions)
			due = Min(due, span->mark);
		else if (s->plan->window.by_arrival)
			past = Min(past, span->end);
		else
			due = Min(due, forget_at(s, span->end));
	}
	return due != PG_INT64_MAX ? due : past;
}

bool
weir_spans_any(WeirSpans *s, const char *bytes, Size len, int64 after,
			   int64 through)
{
	const SavedSpan *span;
	const char *aggs;
	Cursor c;

	cursor_start(&c, bytes, len);
	while (cursor_next(&c, &span, &aggs))
	{
		if (span->mark > after && span->mark <= through)
			return true;
	}
	return false;
}

bool
weir_spans_are_over(WeirSpans *s, const char *bytes, Size len,
					const WeirSpanLimits *limits)
{
	const SavedSpan *span;
	const char *aggs;
	bool over = s->sessions;
	Cursor c;

	cursor_start(&c, bytes, len);
	while (cursor_next(&c, &span, &aggs))
		over = over && may_be_forgotten(s, span, limits);
	return over;
}

char *
weir_spans_trim(WeirSpans *s, const char *bytes, Size *len,
				const WeirSpanLimits *limits)
{
	const SavedSpan *span;
	const char *aggs;
	char *copy = palloc(*len);
	SavedHeader *h = (SavedHeader *) copy;
	char *to = copy + sizeof(SavedHeader);
	Cursor c;

	cursor_start(&c, bytes, *len);
	MemSet(h, 0, sizeof(SavedHeader));
	h->rows = c.rows;
	while (cursor_next(&c, &span, &aggs))
	{
		if (may_be_forgotten(s, span, limits))
			continue;
		memcpy(to, span, sizeof(SavedSpan) + span->length);
		to += sizeof(SavedSpan) + span->length;
		h->nspans++;
	}
	*len = to - copy;
	if (h->nspans == 0 && s->sessions)
	{
		pfree(copy);
		return NULL;
	}
	return copy;
}


/* ---------- live ---------- */

Size
weir_spans_live_size(const WeirSpans *s)
{
	return MAXALIGN(sizeof(LiveSpans)) + weir_aggs_live_size(s->aggs);
}

void
weir_spans_start(WeirSpans *s, void *live)
{
	LiveSpans *l = live;

	memset(l, 0, sizeof(LiveSpans));
	l->size = 1;
	l->spans = &l->first;
}

/* Room for one more span at place i, the later ones moved up; zeroed. */
static LiveSpan *
insert_span(LiveSpans *l, int i, MemoryContext cxt)
{
	if (l->nspans == l->size)
	{
		LiveSpan *more;

		l->size *= 4;
		if (l->spans == &l->first)
		{
			more = MemoryContextAllocHuge(cxt, l->size * sizeof(LiveSpan));
			memcpy(more, l->spans, l->nspans * sizeof(LiveSpan));
			l->spans = more;
		}
		else
			l->spans =
				repalloc_huge(l->spans, (Size) l->size * sizeof(LiveSpan));
	}
	memmove(&l->spans[i + 1], &l->spans[i], (l->nspans - i) * sizeof(LiveSpan));
	MemSet(&l->spans[i], 0, sizeof(LiveSpan));
	l->nspans++;
	return &l->spans[i];
}

static void
remove_span(LiveSpans *l, int i)
{
	l->nspans--;
	memmove(&l->spans[i], &l->spans[i + 1], (l->nspans - i) * sizeof(LiveSpan));
}

void
weir_spans_load(WeirSpans *s, void *live, MemoryContext cxt, const char *bytes,
				Size len, const WeirSpanLimits *limits)
{
	LiveSpans *l = live;
	const SavedSpan *span;
	const char *aggs;
	Cursor c;

	weir_spans_start(s, live);
	cursor_start(&c, bytes, len);
	l->rows = c.rows;
	while (cursor_next(&c, &span, &aggs))
	{
		LiveSpan *new;

		if (may_be_forgotten(s, span, limits))
			continue;
		new = insert_span(l, l->nspans, cxt);
		new->start = span->start;
		new->end = span->end;
		new->mark = span->mark;
		new->bytes = aggs;
		new->length = span->length;
	}
}

/* The aggregates of a span, to be advanced. */
static void *
span_live(WeirSpans *s, LiveSpans *l, LiveSpan *span, MemoryContext cxt)
{
	if (span->live != NULL)
		return span->live;
	if (!l->block_used)
	{
		span->live = live_block(l);
		l->block_used = true;
	}
	else
		span->live = MemoryContextAlloc(cxt, weir_aggs_live_size(s->aggs));
	if (span->bytes != NULL)
		weir_aggs_load(s->aggs, span->live, cxt, span->bytes, span->length);
	else
		weir_aggs_start(s->aggs, span->live, cxt);
	return span->live;
}

/* b's rows are in a, too. */
static void
merge_spans(WeirSpans *s, LiveSpans *l, LiveSpan *a, LiveSpan *b,
			MemoryContext cxt)
{
	void *live = span_live(s, l, a, cxt);
	const char *bytes = b->bytes;
	Size length = b->length;

	if (b->live != NULL)
	{
		char *saved;

		length = weir_aggs_save_size(s->aggs, b->live, cxt);
		saved = MemoryContextAllocHuge(cxt, Max(length, 1));
		weir_aggs_save(s->aggs, b->live, saved);
		bytes = saved;
	}
	weir_aggs_merge(s->aggs, live, cxt, bytes, length);
}

static bool
advance_session(WeirSpans *s, LiveSpans *l, MemoryContext cxt,
				TupleTableSlot *input, uint64 ordinal, int64 ts, int64 before,
				int64 *missed)
{
	int64 start = ts;
	int64 end = ts + s->size; /* the caller has seen that it is in range */
	bool late;
	int first = l->nspans;
	int last;
	LiveSpan *span;

	/*
	 * Sessions it overlaps or touches: [first, last), mostly the newest.  Those
	 * that could be forgotten are not there, whether they have been or not.
	 */
	while (first > 0 && l->spans[first - 1].end >= ts &&
		   (l->spans[first - 1].end > before ||
			forget_at(s, l->spans[first - 1].end) > before))
		first--;
	late = false;
	for (last = first; last < l->nspans && l->spans[last].start <= ts + s->size;
		 last++)
	{
		late |= l->spans[last].end <= before;
		start = Min(start, l->spans[last].start);
		end = Max(end, l->spans[last].end);
	}
	if (late || end <= before)
	{
		*missed = end;
		return false;
	}
	/* too late to make a live session begin earlier: what is forgotten could
	 * then lie within it */
	if (start == ts && (first == last || l->spans[first].start > ts) &&
		!s->plan->window.by_arrival && forget_at(s, ts) <= before)
	{
		*missed = ts + s->size;
		return false;
	}

	if (first == last)
		span = insert_span(l, first, cxt);
	else
	{
		span = &l->spans[first];
		for (; last - first > 1; last--)
		{
			merge_spans(s, l, span, &l->spans[first + 1], cxt);
			remove_span(l, first + 1);
		}
	}
	span->start = start;
	span->end = span->mark = end;
	weir_aggs_advance(s->aggs, span_live(s, l, span, cxt), cxt, input, ordinal);
	return true;
}

static void
advance_count(WeirSpans *s, LiveSpans *l, MemoryContext cxt,
			  TupleTableSlot *input, uint64 ordinal)
{
	int64 row = l->rows++;
	int64 end = row - row % s->slide + s->slide;
	int64 last = (row + s->size) / s->slide * s->slide;
	int i = l->nspans;

	/* spans of later ends are open, and are the last ones */
	while (i > 0 && l->spans[i - 1].end >= end)
		i--;
	for (; end <= last; end += s->slide, i++)
	{
		LiveSpan *span;

		if (i == l->nspans)
		{
			span = insert_span(l, i, cxt);
			span->start = Max(end - s->size, 0);
			span->end = end;
			span->mark = WEIR_SPAN_OPEN;
		}
		span = &l->spans[i];
		weir_aggs_advance(s->aggs, span_live(s, l, span, cxt), cxt, input,
						  ordinal);
		if (row == end - 1)
			span->mark = (int64) ordinal + 1;
	}
}

bool
weir_spans_advance(WeirSpans *s, void *live, MemoryContext cxt,
				   TupleTableSlot *input, uint64 ordinal, int64 ts,
				   int64 before, int64 *missed)
{
	if (s->sessions)
		return advance_session(s, live, cxt, input, ordinal, ts, before,
							   missed);
	advance_count(s, live, cxt, input, ordinal);
	return true;
}

bool
weir_spans_is_empty(const void *live)
{
	const LiveSpans *l = live;

	return l->nspans == 0 && l->rows == 0;
}

int
weir_spans_count(const void *live)
{
	return ((const LiveSpans *) live)->nspans;
}

Size
weir_spans_save_size(WeirSpans *s, void *live, MemoryContext cxt)
{
	LiveSpans *l = live;
	Size size = sizeof(SavedHeader);

	for (int i = 0; i < l->nspans; i++)
	{
		LiveSpan *span = &l->spans[i];

		if (span->live != NULL)
			span->length = weir_aggs_save_size(s->aggs, span->live, cxt);
		size += sizeof(SavedSpan) + MAXALIGN(span->length);
	}
	return size;
}

void
weir_spans_save(WeirSpans *s, void *live, char *dest)
{
	LiveSpans *l = live;
	SavedHeader *h = (SavedHeader *) dest;

	MemSet(h, 0, sizeof(SavedHeader));
	h->nspans = l->nspans;
	h->rows = l->rows;
	dest += sizeof(SavedHeader);
	for (int i = 0; i < l->nspans; i++)
	{
		LiveSpan *span = &l->spans[i];
		SavedSpan *saved = (SavedSpan *) dest;

		saved->start = span->start;
		saved->end = span->end;
		saved->mark = span->mark;
		saved->length = MAXALIGN(span->length);
		dest += sizeof(SavedSpan);
		if (span->live != NULL)
			weir_aggs_save(s->aggs, span->live, dest);
		else
			memcpy(dest, span->bytes, span->length);
		dest += saved->length;
	}
}


/* ---------- showing ---------- */

/* The columns of the window in a key's values. */
static void
set_window_values(WeirSpans *s, const SavedSpan *span, Datum *values,
				  bool *nulls)
{
	const WeirViewPlan *plan = s->plan;

	for (int i = 0; i < plan->nkeys; i++)
	{
		if (!plan->keys[i].is_window)
			continue;
		values[i] = Int64GetDatum(plan->keys[i].is_window_end ? span->end
															  : span->start);
		nulls[i] = plan->keys[i].is_window_end && span->mark == WEIR_SPAN_OPEN;
	}
}

void
weir_spans_show(WeirSpans *s, WeirKeys *keys, const WeirGroup *g, int64 after,
				int64 through, WeirGroupCallback callback, void *arg)
{
	int nkeys = s->plan->nkeys;
	Datum *values = palloc((nkeys + 1) * sizeof(Datum));
	bool *nulls = palloc((nkeys + 1) * sizeof(bool));
	WeirGroup shown = *g;
	const SavedSpan *span;
	const char *aggs;
	Cursor c;

	weir_keys_deform(keys, g->key, values, nulls);
	cursor_start(&c, g->state, g->statelen);
	while (cursor_next(&c, &span, &aggs))
	{
		if (span->mark <= after || span->mark > through)
			continue;
		set_window_values(s, span, values, nulls);
		shown.pane = span->mark;
		shown.key = weir_keys_form(keys, values, nulls, &shown.keylen);
		shown.state = aggs;
		shown.statelen = span->length;
		callback(&shown, arg);
	}
}


/* ---------- dumps ---------- */

void
weir_spans_out(WeirSpans *s, const char *bytes, Size len, WeirTexts *to)
{
	const SavedSpan *span;
	const char *aggs;
	Cursor c;

	cursor_start(&c, bytes, len);
	weir_texts_add_int(to, c.left);
	weir_texts_add_int(to, c.rows);
	while (cursor_next(&c, &span, &aggs))
	{
		weir_texts_add_int(to, span->start);
		weir_texts_add_int(to, span->end);
		weir_texts_add_int(to, span->mark);
		weir_aggs_out(s->aggs, aggs, span->length, to);
	}
}

/* Sessions follow one another and do not touch; windows that count rows, by
 * their end, may overlap. */
char *
weir_spans_in(WeirSpans *s, WeirTexts *from, Size *len)
{
	MemoryContext cxt = CurrentMemoryContext;
	char *live = palloc(weir_spans_live_size(s));
	LiveSpans *l = (LiveSpans *) live;
	int64 nspans = weir_texts_next_int(from, 0, PG_INT32_MAX / 2);
	int64 after = PG_INT64_MIN;
	char *bytes;

	weir_spans_start(s, live);
	l->rows = weir_texts_next_int(from, 0, s->sessions ? 0 : PG_INT64_MAX);
	for (int i = 0; i < nspans; i++)
	{
		LiveSpan *span = insert_span(l, i, cxt);

		CHECK_FOR_INTERRUPTS();
		span->start = weir_texts_next_int(from, PG_INT64_MIN, PG_INT64_MAX);
		span->end = weir_texts_next_int(from, PG_INT64_MIN, PG_INT64_MAX);
		span->mark = weir_texts_next_int(from, PG_INT64_MIN, PG_INT64_MAX);
		if (span->end < span->start ||
			(s->sessions ? span->start <= after && i > 0 : span->end < after))
			weir_texts_are_bad("windows of a key out of order");
		after = span->end;
		span->bytes = weir_aggs_in(s->aggs, from, &span->length);
	}
	*len = weir_spans_save_size(s, live, cxt);
	bytes = palloc_extended(*len, MCXT_ALLOC_HUGE);
	weir_spans_save(s, live, bytes);
	return bytes;
}
