/*-------------------------------------------------------------------------
 *
 * expand.c
 *	  Groups as they are kept -> groups as they are shown, one for each window.
 *
 * Relies on: plan->merged, so that states of one key can be merged; a group of
 * pane l whose key names the window that ends at f counts in the windows that
 * end in [f, l], of the view's grid (window.h).
 *
 * Windows of one key are made in order of their ends, as a queue of two stacks
 * does it: groups enter at f and leave after l.  "Back" is the merged state of
 * those that have entered since the last turn; at a turn, when a group of the
 * front has to leave and the front is empty, all groups that are in become the
 * front, and of each the merged state of it and all that leave after it is
 * made.  So a window costs a merge of two states, and a group three merges,
 * however many windows it is in.  That needs groups to leave in the order they
 * enter; those that do not (rows late for some of their windows enter later
 * than others of their pane) are merged on top one by one.
 *
 * Of windows kept with their key, each group is taken apart by spans.c.
 *
 * Memory: groups lie in a context of the expander's, the states of one key in
 * another that is reset with each key.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "common/int.h"
#include "executor/executor.h"
#include "miscadmin.h"
#include "port/pg_bitutils.h"
#include "utils/memutils.h"

#include "aggregate.h"
#include "debug.h"
#include "expand.h"
#include "final.h"
#include "spans.h"
#include "window.h"

/* A group that was added. */
typedef struct Member
{
	WeirGroup g;
	int64 first; /* window ends it counts in: [first, g.pane] */
	int next;	 /* of the same bucket, -1: none */
} Member;

/* A state: live, and its bytes when they are asked for. */
typedef struct Bytes
{
	char *data;
	Size len;
} Bytes;

struct WeirExpander
{
	MemoryContext cxt;
	MemoryContext key_cxt; /* reset for each key */
	const WeirViewPlan *plan;
	EState *estate;
	WeirAggs *aggs;
	WeirKeys *keys;
	WeirSpans *spans; /* NULL: windows overlap */
	Datum *values;
	bool *nulls;
	Datum *other_values;
	bool *other_nulls;

	Member *members;
	int nmembers;
	int size;

	/* while one key is expanded */
	Member **in; /* its members by first */
	int nin;
	int64 after;
	int64 through;
	WeirGroupCallback callback;
	void *arg;
};

bool
weir_expand_needed(const WeirViewPlan *plan)
{
	return weir_window_overlaps(&plan->window) ||
		   weir_window_is_span(&plan->window);
}

WeirExpander *
weir_expand_create(const WeirViewPlan *plan)
{
	MemoryContext cxt = AllocSetContextCreate(
		CurrentMemoryContext, "weir expand", ALLOCSET_DEFAULT_SIZES);
	MemoryContext old = MemoryContextSwitchTo(cxt);
	WeirExpander *x = palloc0(sizeof(WeirExpander));

	x->cxt = cxt;
	x->key_cxt =
		AllocSetContextCreate(cxt, "weir expand key", ALLOCSET_DEFAULT_SIZES);
	x->plan = plan;
	x->estate = CreateExecutorState();
	x->aggs = weir_aggs_create(plan->aggs, x->estate, plan->merged);
	x->keys = weir_keys_create(plan);
	if (weir_window_is_span(&plan->window))
		x->spans = weir_spans_create(plan, x->aggs);
	x->values = palloc((plan->nkeys + 1) * sizeof(Datum));
	x->nulls = palloc((plan->nkeys + 1) * sizeof(bool));
	x->other_values = palloc((plan->nkeys + 1) * sizeof(Datum));
	x->other_nulls = palloc((plan->nkeys + 1) * sizeof(bool));
	x->size = 64;
	x->members = palloc(x->size * sizeof(Member));
	MemoryContextSwitchTo(old);
	return x;
}

void
weir_expand_free(WeirExpander *x)
{
	weir_aggs_free(x->aggs);
	FreeExecutorState(x->estate);
	MemoryContextDelete(x->cxt);
}

/* The end of the window that a key names. */
static int64
key_window_end(WeirExpander *x, const char *key)
{
	weir_keys_deform(x->keys, key, x->values, x->nulls);
	Ensure(!x->nulls[x->plan->window_key], "group of a window has no window");
	return weir_window_end(&x->plan->window,
						   DatumGetInt64(x->values[x->plan->window_key]));
}

void
weir_expand_add(WeirExpander *x, const WeirGroup *g, bool copy)
{
	Member *m;

	if (x->nmembers == x->size)
	{
		if (x->size > PG_INT32_MAX / 2)
			ereport(ERROR, (errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
							errmsg("too many groups in a continuous view")));
		x->size *= 2;
		x->members = repalloc_huge(x->members, x->size * sizeof(Member));
	}
	m = &x->members[x->nmembers];
	m->g = *g;
	if (copy)
	{
		Size keylen = MAXALIGN(g->keylen);
		char *bytes = MemoryContextAllocHuge(x->cxt, keylen + g->statelen);

		memcpy(bytes, g->key, g->keylen);
		memcpy(bytes + keylen, g->state, g->statelen);
		m->g.key = bytes;
		m->g.state = bytes + keylen;
	}
	x->nmembers++;
	if (x->spans != NULL)
		return;
	m->first = key_window_end(x, m->g.key);
	Ensure(m->first <= g->pane &&
			   m->first >= weir_window_earliest(&x->plan->window, g->pane),
		   "group is in a pane that its window does not belong to");
}

/* Are the keys of two groups the same but for the window? */
static bool
same_key(WeirExpander *x, const Member *a, const Member *b)
{
	weir_keys_deform(x->keys, a->g.key, x->values, x->nulls);
	weir_keys_deform(x->keys, b->g.key, x->other_values, x->other_nulls);
	for (int i = 0; i < x->plan->nkeys; i++)
	{
		if (!x->plan->keys[i].is_window)
			continue;
		x->other_values[i] = x->values[i];
		x->other_nulls[i] = x->nulls[i];
	}
	return weir_keys_equal(x->keys, x->values, x->nulls, x->other_values,
						   x->other_nulls);
}


/* ---------- the windows of one key ---------- */

static void *
new_state(WeirExpander *x)
{
	void *live = palloc(weir_aggs_live_size(x->aggs));

	weir_aggs_start(x->aggs, live, x->key_cxt);
	return live;
}

static void
merge_group(WeirExpander *x, void *live, const WeirGroup *g)
{
	weir_aggs_merge(x->aggs, live, x->key_cxt, g->state, g->statelen);
}

static Bytes
bytes_of(WeirExpander *x, void *live)
{
	Bytes b;

	b.len = weir_aggs_save_size(x->aggs, live, x->key_cxt);
	b.data = MemoryContextAllocHuge(x->key_cxt, Max(b.len, 1));
	weir_aggs_save(x->aggs, live, b.data);
	return b;
}

/* Call back with the window that ends at "end". */
static void
show_window(WeirExpander *x, const WeirGroup *like, int64 end, Bytes state)
{
	const WeirViewPlan *plan = x->plan;
	WeirGroup g = *like;

	weir_keys_deform(x->keys, like->key, x->values, x->nulls);
	for (int i = 0; i < plan->nkeys; i++)
	{
		if (!plan->keys[i].is_window)
			continue;
		x->values[i] =
			Int64GetDatum(plan->keys[i].is_window_end
							  ? end
							  : weir_window_start(&plan->window, end));
		x->nulls[i] = false;
	}
	g.pane = end;
	g.key = weir_keys_form(x->keys, x->values, x->nulls, &g.keylen);
	g.state = state.data;
	g.statelen = state.len;
	x->callback(&g, x->arg);
}

static int
compare_members(const void *a, const void *b)
{
	const Member *x = *(Member *const *) a;
	const Member *y = *(Member *const *) b;

	if (x->first != y->first)
		return x->first < y->first ? -1 : 1;
	return x->g.pane < y->g.pane ? -1 : x->g.pane > y->g.pane;
}

/*
 * x->in has the members of one key.
 */
static void
expand_key(WeirExpander *x)
{
	const WeirWindow *w = &x->plan->window;
	Member **queue =
		palloc(x->nin * sizeof(Member *));			/* leave as they enter */
	Bytes *suffix = palloc(x->nin * sizeof(Bytes)); /* of the front's */
	Member **odd = palloc(x->nin * sizeof(Member *));
	int head = 0; /* of the queue: leaves next */
	int turn = 0; /* front is [head, turn), back [turn, tail) */
	int tail = 0;
	int nodd = 0;
	int next = 0; /* of x->in: enters next */
	void *back = NULL;
	Bytes back_bytes = {NULL, 0};
	Bytes shown = {NULL, 0};
	bool changed = true;
	int64 end;

	qsort(x->in, x->nin, sizeof(Member *), compare_members);
	end = Max(x->in[0]->first,
			  weir_window_next_end(w, x->in[0]->first, x->after));
	while (end <= x->through)
	{
		CHECK_FOR_INTERRUPTS();

		/* who leaves */
		for (int i = 0; i < nodd;)
		{
			if (odd[i]->g.pane >= end)
			{
				i++;
				continue;
			}
			odd[i] = odd[--nodd];
			changed = true;
		}
		while (head < tail && queue[head]->g.pane < end)
		{
			if (head == turn)
			{
				void *live = new_state(x);

				for (int i = tail - 1; i >= head; i--)
				{
					merge_group(x, live, &queue[i]->g);
					suffix[i] = bytes_of(x, live);
				}
				turn = tail;
				back = NULL;
				back_bytes.data = NULL;
			}
			head++;
			changed = true;
		}

		/* who enters */
		while (next < x->nin && x->in[next]->first <= end)
		{
			Member *m = x->in[next++];

			if (m->g.pane < end)
				continue;
			changed = true;
			if (head < tail && queue[tail - 1]->g.pane > m->g.pane)
			{
				odd[nodd++] = m;
				continue;
			}
			if (head == tail)
				head = turn = tail = 0;
			queue[tail++] = m;
			if (tail - turn > 1)
			{
				if (back == NULL)
				{
					back = new_state(x);
					for (int i = turn; i < tail - 1; i++)
						merge_group(x, back, &queue[i]->g);
				}
				merge_group(x, back, &m->g);
			}
			else
				back = NULL;
			back_bytes.data = NULL;
		}

		if (head == tail && nodd == 0)
		{
			/* nothing until the next enters */
			if (next == x->nin)
				break;
			end = x->in[next]->first;
			continue;
		}
		if (changed)
		{
			int parts = nodd;
			void *live;

			if (turn < tail && back_bytes.data == NULL)
			{
				if (back != NULL)
					back_bytes = bytes_of(x, back);
				else
				{
					back_bytes.data = unconstify(char *, queue[turn]->g.state);
					back_bytes.len = queue[turn]->g.statelen;
				}
			}
			parts += (head < turn) + (turn < tail);
			if (parts == 1 && head < turn)
				shown = suffix[head];
			else if (parts == 1 && turn < tail)
				shown = back_bytes;
			else
			{
				live = new_state(x);
				if (head < turn)
					weir_aggs_merge(x->aggs, live, x->key_cxt,
									suffix[head].data, suffix[head].len);
				if (turn < tail)
					weir_aggs_merge(x->aggs, live, x->key_cxt, back_bytes.data,
									back_bytes.len);
				for (int i = 0; i < nodd; i++)
					merge_group(x, live, &odd[i]->g);
				shown = bytes_of(x, live);
			}
			changed = false;
		}
		show_window(x, &x->in[0]->g, end, shown);
		if (pg_add_s64_overflow(end, w->slide, &end))
			break;
	}
}

static void
show_spans(WeirExpander *x)
{
	MemoryContext old = MemoryContextSwitchTo(x->key_cxt);

	for (int i = 0; i < x->nmembers; i++)
	{
		CHECK_FOR_INTERRUPTS();
		MemoryContextReset(x->key_cxt);
		weir_spans_show(x->spans, x->keys, &x->members[i].g, x->after,
						x->through, x->callback, x->arg);
	}
	MemoryContextSwitchTo(old);
}

void
weir_expand_finish(WeirExpander *x, int64 after, int64 through,
				   WeirGroupCallback callback, void *arg)
{
	MemoryContext old = MemoryContextSwitchTo(x->cxt);
	uint32 nbuckets = pg_nextpower2_32(Max(x->nmembers, 16));
	int *buckets =
		MemoryContextAllocHuge(x->cxt, (Size) nbuckets * sizeof(int));

	x->after = after;
	x->through = through;
	x->callback = callback;
	x->arg = arg;
	if (x->spans != NULL)
	{
		show_spans(x);
		MemoryContextSwitchTo(old);
		return;
	}
	memset(buckets, 0xff, (Size) nbuckets * sizeof(int));
	for (int i = 0; i < x->nmembers; i++)
	{
		int *bucket = &buckets[x->members[i].g.hash & (nbuckets - 1)];

		x->members[i].next = *bucket;
		*bucket = i;
	}
	for (uint32 b = 0; b < nbuckets; b++)
	{
		while (buckets[b] >= 0)
		{
			Member *m = &x->members[buckets[b]];
			int n = 0;
			int *link;

			CHECK_FOR_INTERRUPTS();
			MemoryContextReset(x->key_cxt);
			MemoryContextSwitchTo(x->key_cxt);
			for (int i = buckets[b]; i >= 0; i = x->members[i].next)
				n++;
			x->in = palloc(n * sizeof(Member *));
			x->nin = 0;
			x->in[x->nin++] = m;
			buckets[b] = m->next;
			for (link = &buckets[b]; *link >= 0;)
			{
				Member *other = &x->members[*link];

				if (other->g.hash == m->g.hash && same_key(x, m, other))
				{
					x->in[x->nin++] = other;
					*link = other->next;
				}
				else
					link = &other->next;
			}
			expand_key(x);
		}
	}
	MemoryContextSwitchTo(old);
	pfree(buckets);
}
