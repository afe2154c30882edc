/*-------------------------------------------------------------------------
 *
 * timers.c
 *	  When is there something to do for which key?
 *
 * A hash table holds the time of each key, a heap entries (time, key) of which
 * those count that the table agrees with: a key whose time is brought forward
 * leaves an entry behind, that is thrown away when it comes to the top.  A key
 * is brought forward seldom, as windows mostly end later than they did.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "utils/memutils.h"

#include "timers.h"

typedef struct KeyTime
{
	uint32 hash;
	char status; /* simplehash's */
	int64 due;
} KeyTime;

#define SH_PREFIX		   times
#define SH_ELEMENT_TYPE	   KeyTime
#define SH_KEY_TYPE		   uint32
#define SH_KEY			   hash
#define SH_HASH_KEY(tb, k) (k)
#define SH_EQUAL(tb, a, b) ((a) == (b))
#define SH_SCOPE		   static inline
#define SH_DECLARE
#define SH_DEFINE
#include "lib/simplehash.h"

typedef struct Entry
{
	int64 due;
	uint32 hash;
} Entry;

struct WeirTimers
{
	MemoryContext cxt;
	struct times_hash *times;
	Entry *heap;
	uint64 n;
	uint64 size;
};

WeirTimers *
weir_timers_create(MemoryContext cxt)
{
	WeirTimers *t;

	cxt = AllocSetContextCreate(cxt, "weir timers", ALLOCSET_DEFAULT_SIZES);
	t = MemoryContextAllocZero(cxt, sizeof(WeirTimers));
	t->cxt = cxt;
	t->times = times_create(cxt, 64, NULL);
	t->size = 64;
	t->heap = MemoryContextAlloc(cxt, t->size * sizeof(Entry));
	return t;
}

static void
sift_down(WeirTimers *t, uint64 i, Entry e)
{
	for (;;)
	{
		uint64 child = 2 * i + 1;

		if (child >= t->n)
			break;
		if (child + 1 < t->n && t->heap[child + 1].due < t->heap[child].due)
			child++;
		if (t->heap[child].due >= e.due)
			break;
		t->heap[i] = t->heap[child];
		i = child;
	}
	t->heap[i] = e;
}

static void
push(WeirTimers *t, Entry e)
{
	uint64 i;

	for (i = t->n++; i > 0; i = (i - 1) / 2)
	{
		if (t->heap[(i - 1) / 2].due <= e.due)
			break;
		t->heap[i] = t->heap[(i - 1) / 2];
	}
	t->heap[i] = e;
}

static void
pop(WeirTimers *t)
{
	t->n--;
	if (t->n > 0)
		sift_down(t, 0, t->heap[t->n]);
}

void
weir_timers_set(WeirTimers *t, uint32 hash, int64 due)
{
	KeyTime *k;
	bool found;
	Entry e = {due, hash};

	if (due == PG_INT64_MAX)
		return;
	/* the table is not to say what the heap has no room for */
	if (t->n == t->size)
	{
		t->heap = repalloc_huge(t->heap, t->size * 2 * sizeof(Entry));
		t->size *= 2;
	}
	k = times_insert(t->times, hash, &found);
	if (found && k->due <= due)
		return;
	k->due = due;
	push(t, e);
}

int64
weir_timers_next(WeirTimers *t)
{
	while (t->n > 0)
	{
		KeyTime *k = times_lookup(t->times, t->heap[0].hash);

		if (k != NULL && k->due == t->heap[0].due)
			return t->heap[0].due;
		pop(t);
	}
	return PG_INT64_MAX;
}

bool
weir_timers_take(WeirTimers *t, int64 through, uint32 *hash)
{
	int64 next = weir_timers_next(t);

	if (next == PG_INT64_MAX || next > through)
		return false;
	*hash = t->heap[0].hash;
	(void) times_delete(t->times, *hash);
	pop(t);
	return true;
}
