/*-------------------------------------------------------------------------
 *
 * state.c
 *	  Keyed state of a view in shared memory.
 *
 * Relies on: weir_shmem_dsa() is one in-place area that never makes a second
 * segment, so a dsa_pointer is an offset from one base address; one writer a
 * view; keys and states are bytes.
 *
 * Guarantees: a reader gets the groups of exactly one publish; a publish
 * neither allocates nor raises; whatever a dead worker left behind is either
 * found complete by its successor or thrown away.
 *
 * Formats (all in the area, none durable):
 *
 *	Root	sorted array of panes; the registry of open cuts; how far windows
 *			have been dropped, and by which transactions' rows a snapshot that
 *			does not see them can find them in the heap
 *	Pane	window end, stamp, and one Part ("narrow") or, from SPLIT_GROUPS
 *			groups on, WEIR_PARTITIONS Parts by the high bits of the hash
 *			("wide"): ten groups cost about 2 kB, one a half, and no table is doubled in
 *			one long stall.  The blocks of the narrow time stay as the pane's
 *			"legacy" list: read, but never written again.
 *	Part	hash table (bucket heads, chained through the slots), a list of
 *			bump blocks with the slots, free lists by size class
 *	Slot	one version of one group.  Bytes above MAX_INLINE are allocated
 *			apart.  The size of a slot never changes, so a walk through the
 *			blocks stays in step whatever happens meanwhile.
 *
 * States of a slot:  RESERVED -> LIVE -> OLD -> FREE -> RESERVED ...
 *	RESERVED	got by reserve, not yet published	} invisible
 *	FREE		in a free list						}
 *	LIVE		in the hash table; written by publish "begin"
 *	OLD			replaced by publish "end"; not in the table, reached through
 *				the newer version's link by keyed readers
 * A cut c sees a slot iff begin <= c and (LIVE, or OLD with c < end): scanning
 * the blocks in memory order needs no table and no chain.
 *
 * Overwriting: while no cut is open, in place.  While one is, reserve takes a
 * new slot for every group and the old version stays until no cut needs it.  A
 * cut that is opened between a reserve that planned to overwrite in place and
 * its publish is marked broken by the publish; so are all when memory runs
 * out.  A reader that finds its cut broken starts again (nothing has left its
 * hands before it has all).
 *
 * A transaction in parts (weir_state_hide .. weir_state_show): "hidden" is one
 * more than the version at which readers stay meanwhile, however many publishes
 * follow; what they see there is kept as for an open cut.  Slots with begin >=
 * hidden and panes "made" >= hidden are known to the writer only: overwritten
 * in place and freed at once.  Windows of theirs that close never appear in
 * memory; show makes all else visible in one step, and readers find the rows of
 * those windows by the transaction that has put them into the heap.
 *
 * What is not durable (weir_state_mark_clean): the writer keeps a list of slots it
 * has written, as long as it is short, so that a checkpoint of few groups need not
 * look at all blocks.  A slot of the list may have become anything else of its
 * pane, and the pane may be gone: what it is is asked when it is used.
 *
 * Locks: publish_lock and part_lock as in shmem.h.  What changes without a lock
 * (reserve): bump pointers, new blocks (linked when initialised), OLD -> FREE
 * of versions no cut needs, FREE -> RESERVED.  What a reader may need changes
 * only under part_lock exclusive, which the writer skips when, holding
 * publish_lock, it sees no open cut.  Pane array: publish_lock.  Splitting a
 * pane: publish_lock and no open cut.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <sys/mman.h>

#include "access/transam.h"
#include "access/xact.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "port/pg_bitutils.h"
#include "storage/buffile.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/lmgr.h"
#include "storage/procarray.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

#include "debug.h"
#include "guc.h"
#include "state.h"

#define ROOT_MAGIC	   0x57524f54
#define SPLIT_GROUPS   1024 /* a pane with more becomes wide */
#define MAX_INLINE	   1024 /* key + state; more is allocated apart */
#define FIRST_BLOCK	   256
#define LAST_BLOCK	   65536
#define MAX_CUTS	   64
#define SIZE_CLASSES   40
#define PREFETCH_AHEAD 12
#define KEPT_FOR	   (UINT64CONST(1) << 30) /* xids */
#define WALK_BYTES	   65536

/* Slot.word: size (multiple of 16) | flags | state */
#define SLOT_RESERVED	0
#define SLOT_LIVE		1
#define SLOT_OLD		2
#define SLOT_FREE		3
#define SLOT_STATE_MASK 3
#define SLOT_EXTERNAL	4 /* body is an ExternalBytes */
#define SLOT_LEGACY		8 /* in a legacy block: not reused */
#define SLOT_SIZE_MASK	(~(uint32) 15)

#define slot_state(word) ((word) &SLOT_STATE_MASK)
#define slot_size(word)	 ((word) &SLOT_SIZE_MASK)

typedef struct Slot
{
	uint64 begin;	  /* publish that wrote it */
	dsa_pointer next; /* LIVE: hash chain; OLD: next older version;
								 * FREE: free list */
	union
	{
		dsa_pointer older; /* LIVE: newest OLD version.  Dangling once no
								 * cut needs it, and then not followed */
		uint64 end;		   /* OLD: publish that replaced it; stays while
								 * FREE, a reader may still look at it */
	} u;
	uint32 hash;
	uint32 word;
	uint32 keylen;
	uint32 statelen;
	/* key, padding, state; or ExternalBytes */
} Slot;

typedef struct ExternalBytes
{
	dsa_pointer bytes;
	uint64 capacity;
} ExternalBytes;

typedef struct GroupBlock
{
	dsa_pointer next;
	uint32 size;
	uint32 used; /* grows without lock, after the slot's header
								 * is complete */
} GroupBlock;

typedef struct Part
{
	dsa_pointer buckets; /* array of heads; guard: part_lock */
	uint32 nbuckets;	 /* 0 or a power of two */
	uint32 ngroups;
	uint32 planned;	   /* new groups reserved, not yet published */
	uint32 next_block; /* size of the next block */
	dsa_pointer first; /* blocks; set once */
	dsa_pointer last;
	dsa_pointer freelists; /* SIZE_CLASSES heads, when first needed */
} Part;

typedef struct Pane
{
	int64 end;
	uint64 max_version; /* of its groups */
	uint64 ngroups;
	uint64 incoming;	  /* new groups of the reserve under way */
	uint64 next_external; /* slots with bytes of their own, ever */
	TransactionId stamp;  /* moves it to the heap; guard: publish_lock */
	bool committed;		  /* stamp is known to have committed */
	bool wide_hint;		  /* start wide: the neighbour is large */
	uint8 lock;			  /* part_lock of the narrow part */
	uint32 nparts;		  /* 1 or WEIR_PARTITIONS */
	dsa_pointer parts;	  /* when wide */
	Part narrow;
	dsa_pointer legacy; /* blocks of the narrow time, when wide */
	uint64 made;		/* no cut below this can see anything of it */
	uint64 number;		/* of all panes that this state has had */
	dsa_pointer next_limbo;
	uint64 dropped; /* version at which it left the array */
} Pane;

typedef struct PaneRef
{
	int64 end;
	dsa_pointer pane;
} PaneRef;

typedef struct Root
{
	uint32 magic;
	uint32 npanes;
	uint32 capacity;
	dsa_pointer panes;	  /* PaneRef[capacity], by end */
	uint64 clean_version; /* groups with begin <= it are durable */
	uint64 hidden;		  /* 0, or version + 1 of what readers see; guard:
						   * publish_lock */
	int64 swept;		  /* windows up to this end are not needed here
						   * any more; guard of this and the next four:
						   * publish_lock */
	uint64 swept_at;	  /* version when that was raised */
	dsa_pointer gone;	  /* TransactionId[gone_size]: moved windows to the
						   * heap that were dropped before every snapshot
						   * saw them there */
	uint32 ngone;
	uint32 gone_size; /* room for those in panes' stamps, too */
	uint32 nstamps;	  /* at most so many transactions are in stamps */
	uint64 npanes_ever;
	dsa_pointer limbo;	/* panes that left the array, not yet freed */
	dsa_pointer layout; /* text, with its 0: what the states are; constant */
	uint32 layout_size;
	pg_atomic_uint64 cuts[MAX_CUTS]; /* 0, or version + 1, or'ed CUT_BROKEN */
} Root;

#define CUT_BROKEN (UINT64CONST(1) << 63)

/* What reserve has decided for one put. */
typedef struct PutPlan
{
	Pane *pane;
	Part *part;
	Slot *old;		  /* NULL: new group */
	dsa_pointer slot; /* new slot; Invalid: overwrite in place, or remove */
	bool bumped;	  /* slot is the last of its block */
	uint8 lock;
} PutPlan;

/*
 * A slot that was written when what it had was durable.  It may be anything's
 * since, but not of another pane: that has another number.
 */
typedef struct DirtySlot
{
	int64 pane; /* end and number */
	uint64 number;
	dsa_pointer slot;
} DirtySlot;

#define MOST_DIRTY (32 * 1024) /* slots that are worth to be remembered */

typedef struct Garbage
{
	dsa_pointer pane;
	dsa_pointer slot;
	uint64 end;
} Garbage;

#define PANE_CACHE	  64
#define PREFETCH_RING 64

struct WeirState
{
	WeirViewShared *v;
	dsa_area *area;
	Root *root;
	bool loading;	 /* fresh, not yet loaded .. */
	uint64 expected; /* .. and a pane will have so many groups; 0: unknown */
	MemoryContext cxt;

	Pane *pane_cache[PANE_CACHE];

	/* buckets whose entries are still to be prefetched */
	dsa_pointer *ring[PREFETCH_RING];
	uint32 ring_in;
	uint32 ring_out;

	/* reservation */
	PutPlan *plan;
	uint32 *order; /* plan by lock, made by publish */
	int plan_size; /* allocated */
	int nplan;	   /* valid; 0: none outstanding */
	bool in_place; /* some overwrite in place of what a cut may see */

	/* while hidden: moves windows to the heap; invalid: none so far */
	TransactionId mover;

	/* versions to free, oldest first: [garbage_out, garbage_in) */
	Garbage *garbage;
	uint64 garbage_size;
	uint64 garbage_in;
	uint64 garbage_out;
	uint64 unseen_garbage; /* so many of them, with end 0, were never seen */

	uint64 writes; /* puts that were published */

	/* what is not durable; not known if it is much, or was a predecessor's */
	DirtySlot *dirty;
	int ndirty;
	int dirty_size; /* allocated */
	bool dirty_known;
};

/* Shown, and the transaction that has put final rows into the heap is open. */
static WeirViewShared *in_doubt = NULL;

/* The one cut this process holds, for release after an error or exit. */
static struct
{
	WeirViewShared *v; /* NULL: none */
	Root *root;
	int index;
} my_cut;

static char *area_base = NULL;

/* weir_state_private_begin; addresses are only taken of what is used */
#define PRIVATE_TIMES 4 /* weir.state_memory: windows that close stay */
#define PRIVATE_MAX	  ((Size) 512 * 1024 * 1024 * 1024)

static struct
{
	char *place; /* NULL: none */
	Size size;
	dsa_area *area;
	char *shared_base; /* area_base before */
} private_area;

static inline void *
at(dsa_pointer p)
{
	Assert(
		DsaPointerIsValid(p) &&
		p < (private_area.place ? private_area.size : weir_shared->dsa_size));
	return area_base + p;
}

static inline dsa_pointer
pointer_to(const void *p)
{
	return (const char *) p - area_base;
}

static dsa_area *
open_area(void)
{
	dsa_area *area;

	if (private_area.place != NULL)
		return private_area.area;
	area = weir_shmem_dsa();
	if (area_base == NULL)
		area_base = (char *) dsa_get_address(area, 8) - 8;
	return area;
}

void
weir_state_private_begin(void)
{
	Size size = Min(weir_shared->dsa_size * PRIVATE_TIMES, PRIVATE_MAX);
	MemoryContext old;
	void *place;

	Assert(private_area.place == NULL);
	place = mmap(NULL, size, PROT_READ | PROT_WRITE,
				 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (place == MAP_FAILED)
		ereport(ERROR, (errcode(ERRCODE_OUT_OF_MEMORY),
						errmsg("could not map %zu bytes of memory: %m", size)));
	private_area.shared_base = area_base;
	private_area.size = size;
	old = MemoryContextSwitchTo(TopMemoryContext);
	private_area.area =
		dsa_create_in_place(place, size, weir_shared->tranche, NULL);
	MemoryContextSwitchTo(old);
	dsa_pin_mapping(private_area.area);
	dsa_set_size_limit(private_area.area, size);
	private_area.place = place;
	area_base = (char *) dsa_get_address(private_area.area, 8) - 8;
}

/* Raises nothing: it follows an error, too, when its locks have been released. */
void
weir_state_private_end(void)
{
	if (private_area.place == NULL)
		return;
	area_base = private_area.shared_base;
	dsa_detach(private_area.area);
	(void) munmap(private_area.place, private_area.size);
	private_area.place = NULL;
}

/* ---- sizes ---- */

/* 16 to 128 by 16, then eight classes a doubling: at most 12.5 % are lost. */
static inline int
size_class(uint32 size)
{
	int k;

	if (size <= 128)
		return (size + 15) / 16 - 1;
	k = pg_leftmost_one_pos32(size - 1);
	return 8 + (k - 7) * 8 + ((size - 1 - (1U << k)) >> (k - 3));
}

static inline uint32
class_size(int class)
{
	int k;

	if (class < 8)
		return (class + 1) * 16;
	k = 7 + (class - 8) / 8;
	return (1U << k) + ((class - 8) % 8 + 1) * (1U << (k - 3));
}

static inline Size
body_size(Size keylen, Size statelen)
{
	return MAXALIGN(keylen) + MAXALIGN(statelen);
}

static inline int
slot_class(Size keylen, Size statelen)
{
	Size body = body_size(keylen, statelen);

	if (body > MAX_INLINE)
		body = sizeof(ExternalBytes);
	return size_class(sizeof(Slot) + body);
}

static inline ExternalBytes *
slot_external(Slot *slot)
{
	return (ExternalBytes *) (slot + 1);
}

static inline char *
slot_bytes(Slot *slot)
{
	if (slot->word & SLOT_EXTERNAL)
		return at(slot_external(slot)->bytes);
	return (char *) (slot + 1);
}

static void
slot_group(Slot *slot, int64 pane, WeirGroup *g)
{
	char *bytes = slot_bytes(slot);

	g->pane = pane;
	g->hash = slot->hash;
	g->keylen = slot->keylen;
	g->statelen = slot->statelen;
	g->key = bytes;
	g->state = bytes + MAXALIGN(slot->keylen);
}

/* Key and state into a slot whose room is sufficient. */
static void
slot_fill(Slot *slot, const WeirGroup *g)
{
	char *bytes = slot_bytes(slot);

	slot->hash = g->hash;
	slot->keylen = g->keylen;
	slot->statelen = g->statelen;
	memcpy(bytes, g->key, g->keylen);
	memcpy(bytes + MAXALIGN(g->keylen), g->state, g->statelen);
}

/* ---- panes and parts ---- */

static inline Part *
pane_part(Pane *pane, uint32 hash)
{
	if (pane->nparts == 1)
		return &pane->narrow;
	return (Part *) at(pane->parts) + (hash >> 26);
}

static inline Part *
pane_part_number(Pane *pane, int i)
{
	if (pane->nparts == 1)
		return &pane->narrow;
	return (Part *) at(pane->parts) + i;
}

/* Wide panes use the locks by part, narrow ones are spread over them. */
static inline uint8
pane_lock_number(Pane *pane, uint32 hash)
{
	return pane->nparts == 1 ? pane->lock : hash >> 26;
}

StaticAssertDecl(WEIR_PARTITIONS == 64, "a part is the high 6 bits of a hash");

/* Index of the first pane with end >= this. */
static uint32
pane_position(Root *root, int64 end)
{
	PaneRef *refs;
	uint32 low = 0;
	uint32 high = root->npanes;

	if (root->npanes == 0)
		return 0;
	refs = at(root->panes);
	while (low < high)
	{
		uint32 mid = (low + high) / 2;

		if (refs[mid].end < end)
			low = mid + 1;
		else
			high = mid;
	}
	return low;
}

static inline Pane **
pane_cached(WeirState *s, int64 end)
{
	uint64 h = (uint64) end * UINT64CONST(0x9E3779B97F4A7C15);

	return &s->pane_cache[h >> 58];
}

static inline Pane *
pane_find(WeirState *s, int64 end)
{
	Pane **cached = pane_cached(s, end);
	uint32 i;

	if (*cached != NULL && (*cached)->end == end)
		return *cached;
	i = pane_position(s->root, end);
	if (i < s->root->npanes)
	{
		PaneRef *ref = (PaneRef *) at(s->root->panes) + i;

		if (ref->end == end)
			return *cached = at(ref->pane);
	}
	return NULL;
}

/*
 * Does the stamp's transaction take the pane out of sight of the writer: it is
 * ours and open, or has committed?
 */
static bool
pane_is_closed(Pane *pane)
{
	if (!TransactionIdIsValid(pane->stamp))
		return false;
	if (pane->committed)
		return true;
	if (TransactionIdIsCurrentTransactionId(pane->stamp))
		return true;
	if (TransactionIdIsInProgress(pane->stamp))
		return true;
	return TransactionIdDidCommit(pane->stamp);
}

/* ---- memory ---- */

static void
account(WeirState *s, int64 bytes)
{
	pg_atomic_write_u64(&s->v->state_bytes,
						pg_atomic_read_u64(&s->v->state_bytes) + bytes);
}

/* Of all views that the view's owner has on this server. */
static Size
role_memory_used(const WeirViewShared *v)
{
	Oid owner = pg_atomic_read_u32(unconstify(pg_atomic_uint32 *, &v->owner));
	Size used = 0;

	for (int i = 0; i < WEIR_MAX_VIEWS; i++)
	{
		WeirViewShared *other = &weir_shared->views[i];

		if (other->in_use && pg_atomic_read_u32(&other->owner) == owner)
			used += pg_atomic_read_u64(&other->state_bytes);
	}
	return used;
}

static Size
role_memory(const WeirViewShared *v)
{
	return pg_atomic_read_u64(unconstify(pg_atomic_uint64 *, &v->role_memory));
}

/* The last allocation failed by its owner's limit. */
static bool role_is_full = false;

/*
 * InvalidDsaPointer when the area is full, or the owner has what he may take.
 * Two workers may pass that by a block each.
 */
static dsa_pointer
allocate(WeirState *s, Size size, int flags)
{
	Size limit = role_memory(s->v);
	dsa_pointer p;

	role_is_full = limit > 0 && private_area.place == NULL &&
				   role_memory_used(s->v) + size > limit;
	if (role_is_full)
		return InvalidDsaPointer;
	p = dsa_allocate_extended(s->area, size,
							  flags | DSA_ALLOC_NO_OOM | DSA_ALLOC_HUGE);
	if (DsaPointerIsValid(p))
		account(s, size);
	return p;
}

static void
release(WeirState *s, dsa_pointer p, Size size)
{
	dsa_free(s->area, p);
	account(s, -(int64) size);
}

void
weir_state_out_of_memory(WeirState *s)
{
	char *name = get_rel_name(s->v->view);

	if (role_is_full)
		ereport(
			ERROR,
			(errcode(ERRCODE_OUT_OF_MEMORY),
			 errmsg("state memory of continuous views of role \"%s\" is "
					"exhausted",
					GetUserNameFromId(pg_atomic_read_u32(&s->v->owner), true)),
			 errdetail("View \"%s\" holds " UINT64_FORMAT
					   " groups in " UINT64_FORMAT
					   " kB, all views of the role %zu kB.",
					   name ? name : "?", pg_atomic_read_u64(&s->v->groups),
					   pg_atomic_read_u64(&s->v->state_bytes) / 1024,
					   role_memory_used(s->v) / 1024),
			 errhint("Increase \"weir.max_role_memory\" for the role, or "
					 "let windows close earlier.")));
	ereport(
		ERROR,
		(errcode(ERRCODE_OUT_OF_MEMORY),
		 errmsg("state memory of continuous views is exhausted"),
		 errdetail("View \"%s\" holds " UINT64_FORMAT
				   " groups in " UINT64_FORMAT " kB.",
				   name ? name : "?", pg_atomic_read_u64(&s->v->groups),
				   pg_atomic_read_u64(&s->v->state_bytes) / 1024),
		 errhint(
			 "Increase \"weir.state_memory\" and restart the server, or let windows close earlier.")));
}

bool
weir_state_is_exhausted(const ErrorData *e)
{
	return e->sqlerrcode == ERRCODE_OUT_OF_MEMORY && e->funcname != NULL &&
		   strcmp(e->funcname, "weir_state_out_of_memory") == 0;
}

/*
 * A slot of a size class: from the free list, else from the end of the last
 * block, else from a new block.  Invalid when the area is full.
 */
static dsa_pointer
slot_allocate(WeirState *s, Part *part, int class, bool *bumped)
{
	uint32 size = class_size(class);
	GroupBlock *block = NULL;
	Slot *slot;
	dsa_pointer p;

	*bumped = false;
	if (DsaPointerIsValid(part->freelists))
	{
		dsa_pointer *head = (dsa_pointer *) at(part->freelists) + class;

		if (DsaPointerIsValid(*head))
		{
			p = *head;
			slot = at(p);
			*head = slot->next;
			Assert(slot_state(slot->word) == SLOT_FREE);
			slot->word = size | SLOT_RESERVED;
			return p;
		}
	}

	if (DsaPointerIsValid(part->last))
		block = at(part->last);
	if (block == NULL || block->size - block->used < size)
	{
		Size want = Max(part->next_block, FIRST_BLOCK);

		want = Max(want, MAXALIGN(sizeof(GroupBlock)) + size);
		p = allocate(s, want, 0);
		if (!DsaPointerIsValid(p))
			return p;
		part->next_block = Min(want * 2, LAST_BLOCK);
		block = at(p);
		block->next = InvalidDsaPointer;
		block->size = want;
		block->used = MAXALIGN(sizeof(GroupBlock));
		pg_write_barrier();
		if (DsaPointerIsValid(part->last))
			((GroupBlock *) at(part->last))->next = p;
		else
			part->first = p;
		part->last = p;
	}
	p = part->last + block->used;
	slot = at(p);
	slot->begin = 0;
	slot->u.end = 0;
	slot->word = size | SLOT_RESERVED;
	pg_write_barrier(); /* readers step over complete headers only */
	block->used += size;
	*bumped = true;
	return p;
}

/* Give a slot back that no reader can need. */
static void
slot_free(WeirState *s, Pane *pane, dsa_pointer p)
{
	Slot *slot = at(p);
	Part *part = pane_part(pane, slot->hash);
	dsa_pointer *head;

	if (slot->word & SLOT_EXTERNAL)
	{
		ExternalBytes *external = slot_external(slot);

		release(s, external->bytes, external->capacity);
	}
	slot->word = (slot->word & (SLOT_SIZE_MASK | SLOT_LEGACY)) | SLOT_FREE;
	if (slot->word & SLOT_LEGACY)
		return;
	if (!DsaPointerIsValid(part->freelists))
	{
		part->freelists =
			allocate(s, SIZE_CLASSES * sizeof(dsa_pointer), DSA_ALLOC_ZERO);
		if (!DsaPointerIsValid(part->freelists))
			return; /* lost until the pane goes */
	}
	head =
		(dsa_pointer *) at(part->freelists) + size_class(slot_size(slot->word));
	slot->next = *head;
	*head = p;
}

/*
 * Bytes of its own for a RESERVED slot; some slack, as such states usually
 * grow.
 */
static bool
slot_make_external(WeirState *s, Pane *pane, Slot *slot, Size body)
{
	Size capacity = MAXALIGN(body + body / 8);
	dsa_pointer bytes = allocate(s, capacity, 0);

	if (!DsaPointerIsValid(bytes))
		return false;
	slot_external(slot)->bytes = bytes;
	slot_external(slot)->capacity = capacity;
	slot->word |= SLOT_EXTERNAL;
	pane->next_external++;
	return true;
}

/* Move all entries to a table of nbuckets; the caller has the exclusion. */
static void
rehash(Part *part, dsa_pointer table, uint32 nbuckets)
{
	dsa_pointer *from;
	dsa_pointer *to = at(table);

	if (part->nbuckets == 0)
		return;
	from = at(part->buckets);
	for (uint32 i = 0; i < part->nbuckets; i++)
	{
		dsa_pointer p = from[i];

		if (i + 8 < part->nbuckets && DsaPointerIsValid(from[i + 8]))
			__builtin_prefetch(at(from[i + 8]));
		while (DsaPointerIsValid(p))
		{
			Slot *slot = at(p);
			dsa_pointer next = slot->next;
			uint32 b = slot->hash & (nbuckets - 1);

			slot->next = to[b];
			to[b] = p;
			p = next;
		}
	}
}

/* False only if there is no table at all and no memory for one. */
static bool
part_grow(WeirState *s, Part *part, uint8 lock)
{
	uint32 nbuckets = part->nbuckets == 0 ? 8 : part->nbuckets * 2;
	dsa_pointer old = part->buckets;
	Size old_size = part->nbuckets * sizeof(dsa_pointer);
	dsa_pointer table;

	if (nbuckets > 1U << 26)
		return true; /* the hash has no more bits */
	table = allocate(s, nbuckets * sizeof(dsa_pointer), DSA_ALLOC_ZERO);
	if (!DsaPointerIsValid(table))
		return part->nbuckets > 0; /* longer chains then */
	LWLockAcquire(&s->v->part_lock[lock], LW_EXCLUSIVE);
	rehash(part, table, nbuckets);
	part->buckets = table;
	part->nbuckets = nbuckets;
	LWLockRelease(&s->v->part_lock[lock]);
	if (old_size > 0)
		release(s, old, old_size);
	return true;
}

static void
part_insert(Part *part, Slot *slot)
{
	dsa_pointer *head =
		(dsa_pointer *) at(part->buckets) + (slot->hash & (part->nbuckets - 1));

	slot->next = *head;
	*head = pointer_to(slot);
}

/* The pane, made if need be; NULL when the area is full. */
static Pane *
pane_make(WeirState *s, int64 end)
{
	Root *root = s->root;
	Pane *pane = pane_find(s, end);
	PaneRef *refs;
	dsa_pointer p;
	dsa_pointer bigger = InvalidDsaPointer;
	dsa_pointer old = InvalidDsaPointer;
	uint32 capacity = root->capacity;
	uint32 i;

	if (pane != NULL)
		return pane;
	p = allocate(s, sizeof(Pane), DSA_ALLOC_ZERO);
	if (!DsaPointerIsValid(p))
		return NULL;
	if (root->npanes == root->capacity)
	{
		capacity = root->capacity == 0 ? 8 : root->capacity * 2;
		bigger = allocate(s, capacity * sizeof(PaneRef), 0);
		if (!DsaPointerIsValid(bigger))
		{
			release(s, p, sizeof(Pane));
			return NULL;
		}
	}

	pane = at(p);
	pane->end = end;
	pane->made = s->v->version + 1;
	pane->number = root->npanes_ever++;
	pane->nparts = 1;
	pane->lock = ((uint64) end * UINT64CONST(0x9E3779B97F4A7C15)) >> 58;
	i = pane_position(root, end);
	if (i > 0)
	{
		Pane *before = at(((PaneRef *) at(root->panes))[i - 1].pane);

		pane->wide_hint = before->ngroups >= 8 * SPLIT_GROUPS;
	}

	LWLockAcquire(&s->v->publish_lock, LW_EXCLUSIVE);
	if (DsaPointerIsValid(bigger))
	{
		old = root->panes;
		if (root->npanes > 0)
			memcpy(at(bigger), at(old), root->npanes * sizeof(PaneRef));
		root->panes = bigger;
		root->capacity = capacity;
	}
	refs = at(root->panes);
	memmove(refs + i + 1, refs + i, (root->npanes - i) * sizeof(PaneRef));
	refs[i].end = end;
	refs[i].pane = p;
	root->npanes++;
	LWLockRelease(&s->v->publish_lock);
	if (DsaPointerIsValid(old))
		release(s, old, capacity / 2 * sizeof(PaneRef));
	*pane_cached(s, end) = pane;
	return pane;
}

/*
 * Narrow to wide.  Slots stay where they are, in blocks that from now on are
 * only read; so references the writer holds stay good.  Not now if memory is
 * short, or if readers stand in the pane's blocks: it is an optimisation.
 * No reservation may be outstanding.
 */
static void
pane_split(WeirState *s, Pane *pane)
{
	uint64 expected = Max(pane->ngroups + pane->incoming, s->expected);
	uint32 nbuckets = 8;
	Part narrow = pane->narrow;
	dsa_pointer parts_p;
	Part *parts;
	int n;

	s->expected = 0; /* one pane's, and not if it does not fit */
	while (nbuckets * (uint64) WEIR_PARTITIONS < expected &&
		   nbuckets < 1U << 20)
		nbuckets *= 2;
	parts_p = allocate(s, WEIR_PARTITIONS * sizeof(Part), DSA_ALLOC_ZERO);
	if (!DsaPointerIsValid(parts_p))
		return;
	parts = at(parts_p);
	for (n = 0; n < WEIR_PARTITIONS; n++)
	{
		parts[n].buckets =
			allocate(s, nbuckets * sizeof(dsa_pointer), DSA_ALLOC_ZERO);
		if (!DsaPointerIsValid(parts[n].buckets))
			break;
		parts[n].nbuckets = nbuckets;
	}

	LWLockAcquire(&s->v->publish_lock, LW_EXCLUSIVE);
	if (n < WEIR_PARTITIONS || (DsaPointerIsValid(narrow.first) &&
								pg_atomic_read_u32(&s->v->cuts) > 0))
	{
		LWLockRelease(&s->v->publish_lock);
		while (--n >= 0)
			release(s, parts[n].buckets, nbuckets * sizeof(dsa_pointer));
		release(s, parts_p, WEIR_PARTITIONS * sizeof(Part));
		return;
	}
	for (dsa_pointer b = narrow.first; DsaPointerIsValid(b);)
	{
		GroupBlock *block = at(b);
		uint32 off = MAXALIGN(sizeof(GroupBlock));

		while (off < block->used)
		{
			Slot *slot = (Slot *) ((char *) block + off);

			slot->word |= SLOT_LEGACY;
			if (slot_state(slot->word) == SLOT_LIVE)
			{
				Part *part = &parts[slot->hash >> 26];

				part_insert(part, slot);
				part->ngroups++;
			}
			off += slot_size(slot->word);
		}
		b = block->next;
	}
	pane->legacy = narrow.first;
	pane->parts = parts_p;
	pane->nparts = WEIR_PARTITIONS;
	memset(&pane->narrow, 0, sizeof(Part));
	LWLockRelease(&s->v->publish_lock);

	if (narrow.nbuckets > 0)
		release(s, narrow.buckets, narrow.nbuckets * sizeof(dsa_pointer));
	if (DsaPointerIsValid(narrow.freelists))
		release(s, narrow.freelists, SIZE_CLASSES * sizeof(dsa_pointer));
}

/* Frees a list of blocks, with the bytes their slots hold elsewhere. */
static void
free_blocks(WeirState *s, dsa_pointer first, bool externals)
{
	while (DsaPointerIsValid(first))
	{
		GroupBlock *block = at(first);
		dsa_pointer next = block->next;
		uint32 off = MAXALIGN(sizeof(GroupBlock));

		while (externals && off < block->used)
		{
			Slot *slot = (Slot *) ((char *) block + off);

			if (slot->word & SLOT_EXTERNAL)
				release(s, slot_external(slot)->bytes,
						slot_external(slot)->capacity);
			off += slot_size(slot->word);
		}
		release(s, first, block->size);
		first = next;
	}
}

static void
pane_free(WeirState *s, dsa_pointer p)
{
	Pane *pane = at(p);
	bool externals = pane->next_external > 0;

	free_blocks(s, pane->legacy, externals);
	for (int i = 0; i < pane->nparts; i++)
	{
		Part *part = pane_part_number(pane, i);

		free_blocks(s, part->first, externals);
		if (part->nbuckets > 0)
			release(s, part->buckets, part->nbuckets * sizeof(dsa_pointer));
		if (DsaPointerIsValid(part->freelists))
			release(s, part->freelists, SIZE_CLASSES * sizeof(dsa_pointer));
	}
	if (pane->nparts > 1)
		release(s, pane->parts, WEIR_PARTITIONS * sizeof(Part));
	release(s, p, sizeof(Pane));
}

/* ---- cuts, the writer's side ---- */

/*
 * The smallest open cut: among all, and among those that are not broken; while
 * hidden, what readers see counts as one.  PG_UINT64_MAX: none.  Without a lock a cut just being opened may be missed;
 * it is at the current version.
 */
static void
oldest_cuts(WeirState *s, uint64 *any, uint64 *unbroken)
{
	*any = *unbroken =
		s->root->hidden == 0 ? PG_UINT64_MAX : s->root->hidden - 1;
	if (pg_atomic_read_u32(&s->v->cuts) == 0)
		return;
	for (int i = 0; i < MAX_CUTS; i++)
	{
		uint64 cut = pg_atomic_read_u64(&s->root->cuts[i]);

		if (cut == 0)
			continue;
		*any = Min(*any, (cut & ~CUT_BROKEN) - 1);
		if (!(cut & CUT_BROKEN))
			*unbroken = Min(*unbroken, cut - 1);
	}
}

static void
break_cuts(Root *root)
{
	for (int i = 0; i < MAX_CUTS; i++)
	{
		uint64 cut = pg_atomic_read_u64(&root->cuts[i]);

		/* fails if its holder has just gone: then there is nothing to break */
		if (cut != 0)
			(void) pg_atomic_compare_exchange_u64(&root->cuts[i], &cut,
												  cut | CUT_BROKEN);
	}
}

/* Free the versions that no reader can ever have seen, wherever they stand. */
static void
collect_unseen(WeirState *s)
{
	uint64 out = s->garbage_out;

	for (uint64 i = s->garbage_out; i < s->garbage_in; i++)
	{
		Garbage *g = &s->garbage[i];

		if (g->end == 0)
			slot_free(s, at(g->pane), g->slot);
		else
			s->garbage[out++] = *g;
	}
	s->garbage_in = out;
	s->unseen_garbage = 0;
}

/*
 * Free what no open cut needs: old versions, dropped panes.
 */
static void
collect_garbage(WeirState *s)
{
	uint64 any;
	uint64 unbroken;
	dsa_pointer *link = &s->root->limbo;

	/*
	 * A version replaced by publish "end" is needed by cuts below it only.  A
	 * cut that oldest_cuts() missed is at the current version: above.
	 */
	oldest_cuts(s, &any, &unbroken);
	if (s->unseen_garbage > 0)
		collect_unseen(s);
	while (s->garbage_out < s->garbage_in)
	{
		Garbage *g = &s->garbage[s->garbage_out];

		if (g->end > unbroken)
			break;
		slot_free(s, at(g->pane), g->slot);
		s->garbage_out++;
	}
	if (s->garbage_out == s->garbage_in)
		s->garbage_out = s->garbage_in = 0;

	/* readers opened after the drop do not know the pane, whatever their cut */
	while (DsaPointerIsValid(*link))
	{
		dsa_pointer p = *link;
		Pane *pane = at(p);

		if (pane->dropped >= any)
		{
			link = &pane->next_limbo;
			continue;
		}
		*link = pane->next_limbo;
		pane_free(s, p);
	}
}

/* Room for n more; may raise (this process's memory). */
static void
garbage_room(WeirState *s, uint64 n)
{
	uint64 size = s->garbage_size;

	if (s->garbage_out > 0 && s->garbage_in + n > size)
	{
		memmove(s->garbage, s->garbage + s->garbage_out,
				(s->garbage_in - s->garbage_out) * sizeof(Garbage));
		s->garbage_in -= s->garbage_out;
		s->garbage_out = 0;
	}
	if (s->garbage_in + n <= size)
		return;
	while (s->garbage_in + n > size)
		size = size == 0 ? 256 : size * 2;
	if (s->garbage == NULL)
		s->garbage = MemoryContextAllocHuge(s->cxt, size * sizeof(Garbage));
	else
		s->garbage = repalloc_huge(s->garbage, size * sizeof(Garbage));
	s->garbage_size = size;
}

static void
garbage_add(WeirState *s, Pane *pane, dsa_pointer slot, uint64 end)
{
	Garbage *g = &s->garbage[s->garbage_in++];

	Assert(s->garbage_in <= s->garbage_size);
	g->pane = pointer_to(pane);
	g->slot = slot;
	g->end = end;
}

/* ---- attach ---- */

static int
garbage_compare(const void *a, const void *b)
{
	uint64 x = ((const Garbage *) a)->end;
	uint64 y = ((const Garbage *) b)->end;

	return x < y ? -1 : x > y;
}

/*
 * What a predecessor had in its own memory: the versions to free, and the
 * reservation it never published.
 */
static void
recover_blocks(WeirState *s, Pane *pane, dsa_pointer first)
{
	while (DsaPointerIsValid(first))
	{
		GroupBlock *block = at(first);
		uint32 off = MAXALIGN(sizeof(GroupBlock));

		while (off < block->used)
		{
			Slot *slot = (Slot *) ((char *) block + off);
			uint32 size = slot_size(slot->word);

			if (slot_state(slot->word) == SLOT_OLD)
			{
				garbage_room(s, 1);
				garbage_add(s, pane, first + off, slot->u.end);
			}
			else if (slot_state(slot->word) == SLOT_RESERVED)
			{
				/* which part it was got for is not written; the lists of any
				 * part would do but for the locks, so it waits for the pane */
				if (slot->word & SLOT_EXTERNAL)
					release(s, slot_external(slot)->bytes,
							slot_external(slot)->capacity);
				slot->word = size | SLOT_LEGACY | SLOT_FREE;
			}
			off += size;
		}
		first = block->next;
	}
}

static void
recover(WeirState *s)
{
	Root *root = s->root;

	for (uint32 i = 0; i < root->npanes; i++)
	{
		Pane *pane = at(((PaneRef *) at(root->panes))[i].pane);

		CHECK_FOR_INTERRUPTS();
		pane->incoming = 0;
		recover_blocks(s, pane, pane->legacy);
		for (int p = 0; p < pane->nparts; p++)
		{
			Part *part = pane_part_number(pane, p);

			part->planned = 0;
			recover_blocks(s, pane, part->first);
		}

		/* a dead worker's transaction ends before its process does, but its
		 * commit may be under way */
		if (TransactionIdIsValid(pane->stamp) && !pane->committed &&
			!TransactionIdIsCurrentTransactionId(pane->stamp) &&
			TransactionIdIsInProgress(pane->stamp))
			XactLockTableWait(pane->stamp, NULL, NULL, XLTW_None);
	}
	if (s->garbage_in > 1)
		qsort(s->garbage, s->garbage_in, sizeof(Garbage), garbage_compare);
}

static bool
same_layout(const Root *root, const char *layout)
{
	Size size = strlen(layout) + 1;

	return size == root->layout_size &&
		   memcmp(at(root->layout), layout, size) == 0;
}

static void
other_layout(Oid view)
{
	ereport(ERROR, (errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					errmsg("an aggregate, a window or the type of a key of "
						   "continuous view \"%s\" has changed",
						   get_rel_name(view)),
					errhint("Rebuild it from its stream with REFRESH "
							"MATERIALIZED VIEW.")));
}

/*
 * Whose rows in the heap are not seen by every snapshot: a state that is read
 * from the checkpoint has those windows no more, but snapshots that see neither
 * the transaction still need the rows.
 */
static void
keep_xids(WeirState *s)
{
	WeirViewShared *v = s->v;
	Root *root = s->root;
	uint32 n = 0;
	TransactionId *xids = MemoryContextAllocHuge(
		CurrentMemoryContext,
		((Size) root->ngone + root->npanes + 1) * sizeof(TransactionId));

	for (uint32 i = 0; i < root->ngone + root->npanes; i++)
	{
		TransactionId xid =
			i < root->ngone
				? ((TransactionId *) at(root->gone))[i]
				: ((Pane *) at(
					   ((PaneRef *) at(root->panes))[i - root->ngone].pane))
					  ->stamp;

		/* panes of one transaction are neighbours */
		if (!TransactionIdIsValid(xid) || (n > 0 && xids[n - 1] == xid) ||
			TransactionIdIsCurrentTransactionId(xid) ||
			TransactionIdIsInProgress(xid) || !TransactionIdDidCommit(xid))
			continue;
		xids[n++] = xid;
	}
	if (n > 0)
		v->kept = dsa_allocate_extended(s->area, n * sizeof(TransactionId),
										DSA_ALLOC_NO_OOM | DSA_ALLOC_HUGE);
	v->nkept = DsaPointerIsValid(v->kept) ? n : 0;
	if (v->nkept > 0)
		memcpy(at(v->kept), xids, n * sizeof(TransactionId));
	v->kept_at = U64FromFullTransactionId(ReadNextFullTransactionId());
	pfree(xids);
}

static void
forget_kept(WeirViewShared *v, dsa_area *area)
{
	if (DsaPointerIsValid(v->kept))
		dsa_free(area, v->kept);
	v->kept = InvalidDsaPointer;
	v->nkept = 0;
}

/* What keep_xids() has kept belongs to a new state; not if xids may have been
 * used again. */
static void
take_kept(WeirState *s)
{
	WeirViewShared *v = s->v;
	uint64 now = U64FromFullTransactionId(ReadNextFullTransactionId());
	Size size = v->nkept * sizeof(TransactionId);

	if (v->nkept > 0 && now - v->kept_at < KEPT_FOR)
	{
		s->root->gone = v->kept;
		s->root->ngone = s->root->gone_size = v->nkept;
		account(s, size);
		v->kept = InvalidDsaPointer;
	}
	forget_kept(v, s->area);
}

WeirState *
weir_state_attach(WeirViewShared *v, const char *layout, bool *fresh)
{
	MemoryContext cxt;
	WeirState *s;
	dsa_area *area = open_area();

	*fresh = !v->state_valid || v->publishing || !DsaPointerIsValid(v->root) ||
			 ((Root *) at(v->root))->hidden != 0;
	if (*fresh)
		weir_state_discard(v);

	cxt = AllocSetContextCreate(CurrentMemoryContext, "weir state",
								ALLOCSET_DEFAULT_SIZES);
	s = MemoryContextAllocZero(cxt, sizeof(WeirState));
	s->cxt = cxt;
	s->v = v;
	s->area = area;
	if (*fresh)
	{
		Size size = strlen(layout) + 1;
		dsa_pointer p = allocate(s, sizeof(Root), DSA_ALLOC_ZERO);
		dsa_pointer text = allocate(s, size, 0);
		Root *root;

		if (!DsaPointerIsValid(p) || !DsaPointerIsValid(text))
		{
			if (DsaPointerIsValid(p))
				release(s, p, sizeof(Root));
			if (DsaPointerIsValid(text))
				release(s, text, size);
			weir_state_out_of_memory(s);
		}
		memcpy(at(text), layout, size);
		root = at(p);
		root->magic = ROOT_MAGIC;
		root->layout = text;
		root->layout_size = size;
		root->swept = PG_INT64_MIN;
		s->root = root;
		take_kept(s);
		for (int i = 0; i < MAX_CUTS; i++)
			pg_atomic_init_u64(&root->cuts[i], 0);
		LWLockAcquire(&v->publish_lock, LW_EXCLUSIVE);
		v->root = p;
		LWLockRelease(&v->publish_lock);
		s->loading = true;
	}
	s->root = at(v->root);
	Ensure(s->root->magic == ROOT_MAGIC, "state of a view has no root");
	if (!same_layout(s->root, layout))
	{
		MemoryContextDelete(cxt);
		other_layout(v->view);
	}
	if (!*fresh)
		recover(s);
	return s;
}

void
weir_state_expect(WeirState *s, uint64 ngroups)
{
	Assert(s->loading);
	s->expected = ngroups;
}

void
weir_state_loaded(WeirState *s)
{
	if (!s->loading)
		return;
	LWLockAcquire(&s->v->publish_lock, LW_EXCLUSIVE);
	s->v->state_valid = true;
	LWLockRelease(&s->v->publish_lock);
	s->loading = false;
	s->expected = 0;
	ConditionVariableBroadcast(&s->v->progress_cv);
}

void
weir_state_detach(WeirState *s)
{
	MemoryContextDelete(s->cxt);
}

static void
discard(WeirViewShared *v, bool keep)
{
	WeirState s = {.v = v, .area = open_area()};
	Root *root;

	LWLockAcquire(&v->publish_lock, LW_EXCLUSIVE);
	v->state_valid = false;
	if (!DsaPointerIsValid(v->root))
	{
		v->publishing = false;
		LWLockRelease(&v->publish_lock);
		return;
	}
	s.root = root = at(v->root);
	break_cuts(root);
	LWLockRelease(&v->publish_lock);

	/* no new cut can be opened; holders see the mark within a chunk */
	while (pg_atomic_read_u32(&v->cuts) > 0)
	{
		CHECK_FOR_INTERRUPTS();
		pg_usleep(1000L);
	}

	forget_kept(v, s.area);
	if (keep)
		keep_xids(&s); /* may raise: as long as the state can be found */
	LWLockAcquire(&v->publish_lock, LW_EXCLUSIVE);
	v->root = InvalidDsaPointer;
	v->publishing = false;
	LWLockRelease(&v->publish_lock);
	while (DsaPointerIsValid(root->limbo))
	{
		dsa_pointer p = root->limbo;

		root->limbo = ((Pane *) at(p))->next_limbo;
		pane_free(&s, p);
	}
	for (uint32 i = 0; i < root->npanes; i++)
		pane_free(&s, ((PaneRef *) at(root->panes))[i].pane);
	if (root->capacity > 0)
		release(&s, root->panes, root->capacity * sizeof(PaneRef));
	if (root->gone_size > 0)
		release(&s, root->gone, root->gone_size * sizeof(TransactionId));
	release(&s, root->layout, root->layout_size);
	release(&s, pointer_to(root), sizeof(Root));
	pg_atomic_write_u64(&v->groups, 0);
	pg_atomic_write_u64(&v->shown_groups, 0);
	pg_atomic_write_u64(&v->state_bytes, 0);
}

void
weir_state_discard(WeirViewShared *v)
{
	discard(v, true);
}

void
weir_state_forget(WeirViewShared *v)
{
	discard(v, false);
	forget_kept(v, open_area());
}

/* ---- find ---- */

static inline void
prefetch_one_entry(WeirState *s)
{
	dsa_pointer p = *s->ring[s->ring_out++ % PREFETCH_RING];

	if (DsaPointerIsValid(p))
	{
		const char *slot = area_base + p;

		__builtin_prefetch(slot);
		__builtin_prefetch(slot + 64);
		__builtin_prefetch(slot + 128);
	}
}

void
weir_state_prefetch_entries(WeirState *s)
{
	while (s->ring_in != s->ring_out)
		prefetch_one_entry(s);
}

void
weir_state_prefetch(WeirState *s, int64 pane_end, uint32 hash)
{
	Pane *pane = pane_find(s, pane_end);
	Part *part;
	dsa_pointer *bucket;

	if (pane == NULL)
		return;
	part = pane_part(pane, hash);
	if (part->nbuckets == 0)
		return;
	bucket = (dsa_pointer *) at(part->buckets) + (hash & (part->nbuckets - 1));
	__builtin_prefetch(bucket);
	if (s->ring_in - s->ring_out == PREFETCH_RING)
		prefetch_one_entry(s);
	s->ring[s->ring_in++ % PREFETCH_RING] = bucket;
}

bool
weir_state_find(WeirState *s, int64 pane_end, uint32 hash, dsa_pointer *iter,
				dsa_pointer *ref, WeirGroup *g)
{
	dsa_pointer p;

	if (*iter == 0)
	{
		Pane *pane = pane_find(s, pane_end);
		Part *part;

		if (pane == NULL)
			return false;
		part = pane_part(pane, hash);
		if (part->nbuckets == 0)
			return false;
		p = ((dsa_pointer *) at(part->buckets))[hash & (part->nbuckets - 1)];
	}
	else
		p = ((Slot *) at(*iter))->next;

	while (DsaPointerIsValid(p))
	{
		Slot *slot = at(p);

		if (slot->hash == hash)
		{
			*iter = *ref = p;
			slot_group(slot, pane_end, g);
			return true;
		}
		p = slot->next;
	}
	return false;
}

/* ---- reserve and publish ---- */

/*
 * Give a reservation back.  Backwards, so that slots from the end of a block
 * make it shrink again: unless a reader may stand among them, who would lose his
 * step when others of other sizes take their place.
 */
static void
cancel_reservation(WeirState *s)
{
	bool shrink;

	if (s->nplan == 0)
		return;
	LWLockAcquire(&s->v->publish_lock, LW_EXCLUSIVE);
	shrink = pg_atomic_read_u32(&s->v->cuts) == 0;
	if (!shrink)
		LWLockRelease(&s->v->publish_lock);
	while (s->nplan > 0)
	{
		PutPlan *plan = &s->plan[--s->nplan];

		if (plan->old == NULL && plan->part != NULL)
			plan->part->planned--;
		if (!DsaPointerIsValid(plan->slot))
			continue;
		if (plan->bumped && shrink)
		{
			Slot *slot = at(plan->slot);
			GroupBlock *block = at(plan->part->last);
			uint32 size = slot_size(slot->word);

			/* not the last: a later slot started another block */
			if (plan->slot + size == plan->part->last + block->used)
			{
				if (slot->word & SLOT_EXTERNAL)
					release(s, slot_external(slot)->bytes,
							slot_external(slot)->capacity);
				slot->word = size | SLOT_FREE;
				block->used -= size;
				continue;
			}
		}
		slot_free(s, plan->pane, plan->slot);
	}
	if (shrink)
		LWLockRelease(&s->v->publish_lock);
}

/* Is it of a part of a transaction that is not shown yet? */
static inline bool
is_unseen(const WeirState *s, const Slot *slot)
{
	return s->root->hidden != 0 && slot->begin >= s->root->hidden;
}

/* May the put go where the old version is?  Only asked if no cut sees that. */
static bool
fits_in_place(const WeirPut *put, Slot *old)
{
	Size body = body_size(put->group.keylen, put->group.statelen);

	if (old->word & SLOT_LEGACY)
		return false;
	if (old->word & SLOT_EXTERNAL)
	{
		uint64 capacity = slot_external(old)->capacity;

		return body > MAX_INLINE && body <= capacity && body >= capacity / 4;
	}
	return body <= MAX_INLINE &&
		   class_size(size_class(sizeof(Slot) + body)) == slot_size(old->word);
}

/*
 * One attempt; false when the area is full, with s->plan holding what was
 * got.  cow: every group gets a new slot.
 */
static bool
plan_puts(WeirState *s, WeirPut *puts, int n, bool cow)
{
	Pane *pane = NULL;

	/* panes, and how many new groups each gets */
	for (int i = 0; i < n; i++)
	{
		WeirPut *put = &puts[i];

		if (pane == NULL || pane->end != put->group.pane)
		{
			pane = pane_make(s, put->group.pane);
			if (pane == NULL)
				return false;
			pane->incoming = 0;
		}
		s->plan[i].pane = pane;
	}
	for (int i = 0; i < n; i++)
		if (!DsaPointerIsValid(puts[i].ref))
			s->plan[i].pane->incoming++;
	for (int i = 0; i < n; i++)
	{
		pane = s->plan[i].pane;
		if (pane->incoming > 0 && pane->nparts == 1 &&
			(Max(pane->ngroups + pane->incoming, s->expected) > SPLIT_GROUPS ||
			 (pane->wide_hint && pane->ngroups == 0)))
			pane_split(s, pane);
		pane->incoming = 0;
	}

	s->in_place = false;
	for (int i = 0; i < n; i++)
	{
		WeirPut *put = &puts[i];
		PutPlan *plan = &s->plan[i];
		Size body = body_size(put->group.keylen, put->group.statelen);

		if (i + PREFETCH_AHEAD < n &&
			DsaPointerIsValid(puts[i + PREFETCH_AHEAD].ref))
			__builtin_prefetch(at(puts[i + PREFETCH_AHEAD].ref));
		pane = plan->pane;
		plan->part = pane_part(pane, put->group.hash);
		plan->lock = pane_lock_number(pane, put->group.hash);
		plan->old = NULL;
		plan->slot = InvalidDsaPointer;
		plan->bumped = false;
		s->nplan = i + 1;
		if (DsaPointerIsValid(put->ref))
		{
			bool unseen;

			plan->old = at(put->ref);
			Assert(slot_state(plan->old->word) == SLOT_LIVE);
			if (put->remove)
				continue;
			unseen = is_unseen(s, plan->old);
			if ((!cow || unseen) && fits_in_place(put, plan->old))
			{
				s->in_place = s->in_place || !unseen;
				continue;
			}
		}
		else
		{
			plan->part->planned++;
			if (plan->part->ngroups + plan->part->planned >
					plan->part->nbuckets &&
				!part_grow(s, plan->part, plan->lock))
				return false;
		}
		plan->slot = slot_allocate(
			s, plan->part, slot_class(put->group.keylen, put->group.statelen),
			&plan->bumped);
		if (!DsaPointerIsValid(plan->slot))
			return false;
		/* slot_free() finds the part by it */
		((Slot *) at(plan->slot))->hash = put->group.hash;
		if (body > MAX_INLINE &&
			!slot_make_external(s, pane, at(plan->slot), body))
			return false;
	}
	return true;
}

/* Blocks that hold nothing, at the end of a part's list. */
static void
give_back_blocks(WeirState *s, Part *part)
{
	dsa_pointer *link = &part->first;
	dsa_pointer last = InvalidDsaPointer;

	while (DsaPointerIsValid(*link))
	{
		GroupBlock *block = at(*link);

		if (block->used == MAXALIGN(sizeof(GroupBlock)))
		{
			dsa_pointer p = *link;

			*link = block->next;
			release(s, p, block->size);
			continue;
		}
		last = *link;
		link = &block->next;
	}
	part->last = last;
}

static void forget_dropped(WeirState *s);

/* Panes made for a reservation that could not be had. */
static void
drop_empty_panes(WeirState *s)
{
	Root *root = s->root;
	PaneRef *refs;
	uint32 out = 0;

	if (root->npanes == 0)
		return;
	LWLockAcquire(&s->v->publish_lock, LW_EXCLUSIVE);
	refs = at(root->panes);
	for (uint32 i = 0; i < root->npanes; i++)
	{
		Pane *pane = at(refs[i].pane);

		if (pane->ngroups > 0 || TransactionIdIsValid(pane->stamp))
		{
			refs[out++] = refs[i];
			continue;
		}
		pane->dropped = Max(s->v->version, 1);
		pane->next_limbo = root->limbo;
		root->limbo = refs[i].pane;
	}
	root->npanes = out;
	LWLockRelease(&s->v->publish_lock);
	forget_dropped(s);
	collect_garbage(s);
}

/* Publish remembers what it writes; it cannot allocate. */
static void
dirty_room(WeirState *s, int n)
{
	int size;

	if (!s->dirty_known || s->dirty_size - s->ndirty >= n)
		return;
	if (s->ndirty + n > MOST_DIRTY)
	{
		s->dirty_known = false;
		return;
	}
	size = Min(Max(s->ndirty + n, 2 * s->dirty_size), MOST_DIRTY);
	if (s->dirty == NULL)
		s->dirty = MemoryContextAlloc(s->cxt, size * sizeof(DirtySlot));
	else
		s->dirty = repalloc(s->dirty, size * sizeof(DirtySlot));
	s->dirty_size = size;
}

void
weir_state_reserve(WeirState *s, WeirPut *puts, int n)
{
	WeirViewShared *v = s->v;
	bool hidden = s->root->hidden != 0;

	cancel_reservation(s);
	collect_garbage(s);
	s->ring_in = s->ring_out = 0;
	if (n == 0)
		return;

	for (int i = 0; i < n; i++)
	{
		if (puts[i].group.keylen > MaxAllocSize / 2 ||
			puts[i].group.statelen > MaxAllocSize / 2)
			ereport(
				ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("state of a group exceeds %d MB",
						(int) (MaxAllocSize / 2 / (1024 * 1024))),
				 errhint(
					 "Aggregates that keep their input rows need windows or groups small enough.")));
		puts[i].reserved = InvalidDsaPointer;
	}
	if (n > s->plan_size)
	{
		int size = Max(n, 64);

		if (s->plan != NULL)
			pfree(s->plan);
		if (s->order != NULL)
			pfree(s->order);
		s->plan = NULL;
		s->order = NULL;
		s->plan_size = 0;
		s->plan = MemoryContextAllocHuge(s->cxt, size * sizeof(PutPlan));
		s->order = MemoryContextAllocHuge(s->cxt, size * sizeof(uint32));
		s->plan_size = size;
	}
	dirty_room(s, n);
	garbage_room(s, n);

	if (!plan_puts(s, puts, n, hidden || pg_atomic_read_u32(&v->cuts) > 0))
	{
		bool done;

		/* what readers keep alive comes first */
		cancel_reservation(s);
		break_cuts(s->root);
		collect_garbage(s);
		done = plan_puts(s, puts, n, hidden);
		if (!done)
		{
			cancel_reservation(s);
			/* readers may stand in an empty block; then it stays */
			LWLockAcquire(&v->publish_lock, LW_EXCLUSIVE);
			if (pg_atomic_read_u32(&v->cuts) == 0)
			{
				for (int i = 0; i < n; i++)
				{
					Pane *pane = pane_find(s, puts[i].group.pane);

					if (pane != NULL)
						give_back_blocks(s,
										 pane_part(pane, puts[i].group.hash));
				}
			}
			LWLockRelease(&v->publish_lock);
			drop_empty_panes(s);
			weir_state_out_of_memory(s);
		}
	}
	for (int i = 0; i < n; i++)
		puts[i].reserved = s->plan[i].slot;
}

/* Take a slot out of its chain, "instead" in its place if that is valid. */
static void
replace_in_chain(Part *part, Slot *old, dsa_pointer instead)
{
	dsa_pointer p = pointer_to(old);
	dsa_pointer *link;

	link =
		(dsa_pointer *) at(part->buckets) + (old->hash & (part->nbuckets - 1));
	while (*link != p)
		link = &((Slot *) at(*link))->next;
	*link = DsaPointerIsValid(instead) ? instead : old->next;
}

/* The slot becomes an old version. */
static void
retire(WeirState *s, Pane *pane, Slot *old, uint64 version)
{
	bool unseen = is_unseen(s, old);

	old->next = old->u.older;
	old->u.end = version;
	pg_write_barrier(); /* legacy blocks are read under another lock */
	old->word = (old->word & ~SLOT_STATE_MASK) | SLOT_OLD;
	garbage_add(s, pane, pointer_to(old), unseen ? 0 : version);
	s->unseen_garbage += unseen;
}

static inline void
note_dirty(WeirState *s, const Pane *pane, dsa_pointer slot)
{
	DirtySlot *d;

	if (!s->dirty_known)
		return;
	Assert(s->ndirty < s->dirty_size);
	d = &s->dirty[s->ndirty++];
	d->pane = pane->end;
	d->number = pane->number;
	d->slot = slot;
}

/* One put; the caller has the exclusion.  Returns by how much groups grow. */
static inline int
publish_one(WeirState *s, const PutPlan *plan, const WeirPut *put,
			uint64 version)
{
	Slot *slot;

	plan->pane->max_version = version;
	if (put->remove)
	{
		replace_in_chain(plan->part, plan->old, InvalidDsaPointer);
		retire(s, plan->pane, plan->old, version);
		plan->part->ngroups--;
		plan->pane->ngroups--;
		return -1;
	}
	if (!DsaPointerIsValid(plan->slot))
	{
		if (plan->old->begin <= s->root->clean_version)
			note_dirty(s, plan->pane, pointer_to(plan->old));
		slot_fill(plan->old, &put->group);
		plan->old->begin = version;
		return 0;
	}

	note_dirty(s, plan->pane, plan->slot);
	slot = at(plan->slot);
	slot_fill(slot, &put->group);
	slot->begin = version;
	slot->word = (slot->word & ~SLOT_STATE_MASK) | SLOT_LIVE;
	if (plan->old == NULL)
	{
		slot->u.older = InvalidDsaPointer;
		part_insert(plan->part, slot);
		plan->part->planned--;
		plan->part->ngroups++;
		plan->pane->ngroups++;
		return 1;
	}
	slot->next = plan->old->next;
	/* what nobody may see is freed before the versions below it */
	slot->u.older =
		is_unseen(s, plan->old) ? plan->old->u.older : pointer_to(plan->old);
	replace_in_chain(plan->part, plan->old, plan->slot);
	retire(s, plan->pane, plan->old, version);
	return 0;
}

/* What publish_one will write to. */
static inline void
prefetch_target(const PutPlan *plan)
{
	const char *slot =
		DsaPointerIsValid(plan->slot) ? at(plan->slot) : (char *) plan->old;

	__builtin_prefetch(slot, 1);
	__builtin_prefetch(slot + 64, 1);
	__builtin_prefetch(slot + 128, 1);
	if (DsaPointerIsValid(plan->slot) && plan->old != NULL)
		__builtin_prefetch(plan->old, 1);
}

void
weir_state_publish(WeirState *s, WeirPut *puts, int n, WeirPosition position,
				   TimestampTz watermark)
{
	WeirViewShared *v = s->v;
	uint64 version = v->version + 1;
	int added = 0;

	if (n == 0)
		cancel_reservation(s);
	Assert(n == s->nplan);

	LWLockAcquire(&v->publish_lock, LW_EXCLUSIVE);
	v->publishing = true;
	weir_debug_point_critical("state-publish");
	if (n > 0 && pg_atomic_read_u32(&v->cuts) == 0)
	{
		for (int i = 0; i < n; i++)
		{
			if (i + PREFETCH_AHEAD < n)
				prefetch_target(&s->plan[i + PREFETCH_AHEAD]);
			added += publish_one(s, &s->plan[i], &puts[i], version);
		}
	}
	else if (n > 0)
	{
		uint32 start[WEIR_PARTITIONS + 1] = {0};
		int i = 0;

		if (s->in_place)
			break_cuts(s->root);

		/* by lock, so that each is taken once */
		for (int k = 0; k < n; k++)
			start[s->plan[k].lock + 1]++;
		for (int l = 1; l <= WEIR_PARTITIONS; l++)
			start[l] += start[l - 1];
		for (int k = 0; k < n; k++)
			s->order[start[s->plan[k].lock]++] = k;
		while (i < n)
		{
			uint8 lock = s->plan[s->order[i]].lock;

			LWLockAcquire(&v->part_lock[lock], LW_EXCLUSIVE);
			for (; i < n && s->plan[s->order[i]].lock == lock; i++)
			{
				uint32 k = s->order[i];

				added += publish_one(s, &s->plan[k], &puts[k], version);
			}
			LWLockRelease(&v->part_lock[lock]);
		}
	}
	weir_debug_point_critical("state-publish-end");
	v->version = version;
	if (s->root->hidden == 0)
	{
		pg_atomic_write_u64(&v->position, position);
		v->watermark = watermark;
	}
	if (added != 0)
	{
		pg_atomic_write_u64(&v->groups, pg_atomic_read_u64(&v->groups) + added);
		pg_atomic_write_u64(&v->shown_groups,
							pg_atomic_read_u64(&v->shown_groups) + added);
	}
	s->nplan = 0;
	s->writes += n;
	v->publishing = false;
	LWLockRelease(&v->publish_lock);
	ConditionVariableBroadcast(&v->progress_cv);
}

/* ---- panes ---- */

static inline Pane *
pane_number(Root *root, uint32 i)
{
	return at(((PaneRef *) at(root->panes))[i].pane);
}

int
weir_state_panes(WeirState *s, int64 final_before, int64 **ends)
{
	Root *root = s->root;
	int n = 0;

	*ends = palloc(Max(root->npanes, 1) * sizeof(int64));
	for (uint32 i = 0; i < root->npanes; i++)
	{
		Pane *pane = pane_number(root, i);

		if (pane->end > final_before)
			break;
		if (pane->ngroups > 0 && !pane_is_closed(pane))
			(*ends)[n++] = pane->end;
	}
	return n;
}

static int64
first_open_pane(WeirState *s, uint32 from)
{
	for (uint32 i = from; i < s->root->npanes; i++)
	{
		Pane *pane = pane_number(s->root, i);

		if (pane->ngroups > 0 && !pane_is_closed(pane))
			return pane->end;
	}
	return PG_INT64_MAX;
}

int64
weir_state_min_pane(WeirState *s)
{
	return first_open_pane(s, 0);
}

int64
weir_state_next_pane(WeirState *s, int64 after)
{
	return first_open_pane(s, pane_position(s->root, after + 1));
}

/* Whatever is stamped can be dropped early without an allocation then. */
static void
make_gone_room(WeirState *s)
{
	Root *root = s->root;
	uint32 need = root->ngone + root->nstamps + 1;
	uint32 old_size = root->gone_size;
	uint32 size = Max(old_size, 16);
	dsa_pointer old = root->gone;
	dsa_pointer p;

	if (need <= old_size)
		return;
	while (size < need)
		size *= 2;
	p = allocate(s, size * sizeof(TransactionId), 0);
	if (!DsaPointerIsValid(p))
		weir_state_out_of_memory(s);
	if (root->ngone > 0)
		memcpy(at(p), at(old), root->ngone * sizeof(TransactionId));
	LWLockAcquire(&s->v->publish_lock, LW_EXCLUSIVE);
	root->gone = p;
	root->gone_size = size;
	LWLockRelease(&s->v->publish_lock);
	if (old_size > 0)
		release(s, old, old_size * sizeof(TransactionId));
}

void
weir_state_stamp(WeirState *s, int64 through, TransactionId xid, bool overlap)
{
	uint32 n;
	bool *closed;
	bool hidden = s->root->hidden != 0;

	if (hidden)
		Ensure(!TransactionIdIsValid(s->mover) || s->mover == xid,
			   "a transaction in parts spans two of its view's");
	if (!hidden || s->mover != xid)
	{
		make_gone_room(s);
		s->root->nstamps++;
	}
	if (hidden)
		s->mover = xid;
	if (overlap && pane_make(s, through) == NULL)
		weir_state_out_of_memory(s);
	n = pane_position(s->root, through);
	if (n < s->root->npanes && pane_number(s->root, n)->end == through)
		n++;
	closed = palloc(Max(n, 1) * sizeof(bool));
	for (uint32 i = 0; i < n; i++)
		closed[i] = pane_is_closed(pane_number(s->root, i));
	LWLockAcquire(&s->v->publish_lock, LW_EXCLUSIVE);
	for (uint32 i = 0; i < n; i++)
	{
		Pane *pane = pane_number(s->root, i);

		if (closed[i])
			continue;
		pane->stamp = xid;
		if (!hidden)
			pane->made = 0; /* every cut has to know of the stamp */
	}
	LWLockRelease(&s->v->publish_lock);
	pfree(closed);
}

/* Entries of dropped panes; their slots are freed with the pane. */
static void
forget_garbage(WeirState *s)
{
	uint64 out = s->garbage_out;

	for (uint64 i = s->garbage_out; i < s->garbage_in; i++)
		if (((Pane *) at(s->garbage[i].pane))->dropped == 0)
			s->garbage[out++] = s->garbage[i];
	s->garbage_in = out;
}

/* Pointers to panes and slots are good no more; their versions go with them. */
static void
forget_dropped(WeirState *s)
{
	memset(s->pane_cache, 0, sizeof(s->pane_cache));
	s->ring_in = s->ring_out = 0;
	forget_garbage(s);
}

static void
count_dropped(WeirState *s, uint64 ngroups)
{
	pg_atomic_write_u64(&s->v->groups,
						pg_atomic_read_u64(&s->v->groups) - ngroups);
}

/*
 * What became of the stamps.  The commit log is asked outside the lock.  An
 * aborted stamp means nothing to readers, so it may go under their eyes; but not
 * the commit log.
 */
static void
settle_stamps(WeirState *s)
{
	Root *root = s->root;
	uint64 hidden = 0;
	uint32 nstamps = 0;
	TransactionId last = InvalidTransactionId;

	for (uint32 i = 0; i < root->npanes; i++)
	{
		Pane *pane = pane_number(root, i);

		if (!TransactionIdIsValid(pane->stamp))
			continue;
		if (!pane->committed &&
			!TransactionIdIsCurrentTransactionId(pane->stamp) &&
			!TransactionIdIsInProgress(pane->stamp))
		{
			if (!TransactionIdDidCommit(pane->stamp))
			{
				LWLockAcquire(&s->v->publish_lock, LW_EXCLUSIVE);
				pane->stamp = InvalidTransactionId;
				LWLockRelease(&s->v->publish_lock);
				continue;
			}
			pane->committed = true;
		}
		/* panes of one transaction are neighbours */
		if (pane->stamp != last)
			nstamps++;
		last = pane->stamp;
		if (pane->committed)
			hidden += pane->ngroups;
	}
	/* one that closes in parts is counted before it has stamped a pane */
	if (root->hidden == 0)
		root->nstamps = nstamps;
	pg_atomic_write_u64(&s->v->shown_groups,
						pg_atomic_read_u64(&s->v->groups) - hidden);
}

/*
 * Drop panes whose rows are in the heap: those that every snapshot sees there
 * (oldest), or (InvalidTransactionId) all.
 */
static bool
drop_panes(WeirState *s, TransactionId oldest)
{
	WeirViewShared *v = s->v;
	Root *root = s->root;
	uint64 gone = 0;
	uint32 out = 0;
	bool any = false;
	PaneRef *refs;

	for (uint32 i = 0; i < root->npanes && !any; i++)
	{
		Pane *pane = pane_number(root, i);

		any = pane->committed && (!TransactionIdIsValid(oldest) ||
								  TransactionIdPrecedes(pane->stamp, oldest));
	}
	if (!any)
		return false;

	cancel_reservation(s); /* it may name panes that go */
	LWLockAcquire(&v->publish_lock, LW_EXCLUSIVE);
	refs = at(root->panes);
	for (uint32 i = 0; i < root->npanes; i++)
	{
		Pane *pane = at(refs[i].pane);

		if (!pane->committed || (TransactionIdIsValid(oldest) &&
								 !TransactionIdPrecedes(pane->stamp, oldest)))
		{
			refs[out++] = refs[i];
			continue;
		}
		if (!TransactionIdIsValid(oldest))
		{
			TransactionId *xids = at(root->gone);

			/* panes of one transaction are neighbours */
			if (root->ngone == 0 || xids[root->ngone - 1] != pane->stamp)
			{
				Assert(root->ngone < root->gone_size);
				xids[root->ngone++] = pane->stamp;
			}
		}
		gone += pane->ngroups;
		root->swept = Max(root->swept, pane->end);
		root->swept_at = v->version;
		pane->dropped = Max(v->version, 1);
		pane->next_limbo = root->limbo;
		root->limbo = refs[i].pane;
	}
	root->npanes = out;
	LWLockRelease(&v->publish_lock);
	forget_dropped(s);
	collect_garbage(s);
	count_dropped(s, gone);
	return true;
}

void
weir_state_sweep(WeirState *s, TransactionId oldest)
{
	Root *root = s->root;

	settle_stamps(s);
	(void) drop_panes(s, oldest);
	if (root->ngone > 0)
	{
		TransactionId *xids = at(root->gone);
		uint32 out = 0;

		LWLockAcquire(&s->v->publish_lock, LW_EXCLUSIVE);
		for (uint32 i = 0; i < root->ngone; i++)
			if (!TransactionIdPrecedes(xids[i], oldest))
				xids[out++] = xids[i];
		root->ngone = out;
		LWLockRelease(&s->v->publish_lock);
	}
}

bool
weir_state_drop_closed(WeirState *s)
{
	settle_stamps(s);
	return drop_panes(s, InvalidTransactionId);
}

int64
weir_state_swept(WeirState *s)
{
	return s->root->swept;
}

void
weir_state_set_swept(WeirState *s, int64 through)
{
	LWLockAcquire(&s->v->publish_lock, LW_EXCLUSIVE);
	s->root->swept = through;
	LWLockRelease(&s->v->publish_lock);
}


/* ---- a transaction in parts ---- */

static void
doubt_exit(int code, Datum arg)
{
	weir_state_doubt();
}

void
weir_state_hide(WeirState *s)
{
	static bool registered = false;

	if (!registered)
	{
		/* runs before the transaction is ended */
		before_shmem_exit(doubt_exit, (Datum) 0);
		registered = true;
	}
	cancel_reservation(s);
	s->mover = InvalidTransactionId;
	LWLockAcquire(&s->v->publish_lock, LW_EXCLUSIVE);
	s->root->hidden = s->v->version + 1;
	LWLockRelease(&s->v->publish_lock);
}

bool
weir_state_is_held(WeirState *s, dsa_pointer ref)
{
	const Slot *slot = at(ref);
	uint64 any;
	uint64 unbroken;

	if (s->root->hidden != 0)
		return !is_unseen(s, slot) || DsaPointerIsValid(slot->u.older);
	/* who looks for its key finds none; who has come since needs none */
	oldest_cuts(s, &any, &unbroken);
	return any <= s->root->swept_at;
}

void
weir_state_drop_hidden(WeirState *s)
{
	Root *root = s->root;
	dsa_pointer *dropped = palloc(Max(root->npanes, 1) * sizeof(dsa_pointer));
	PaneRef *refs = root->npanes > 0 ? at(root->panes) : NULL;
	uint32 ndropped = 0;
	uint32 out = 0;
	uint64 gone = 0;

	Assert(root->hidden != 0);
	cancel_reservation(s); /* it may name panes that go */
	LWLockAcquire(&s->v->publish_lock, LW_EXCLUSIVE);
	for (uint32 i = 0; i < root->npanes; i++)
	{
		Pane *pane = at(refs[i].pane);

		if (!TransactionIdIsValid(s->mover) || pane->stamp != s->mover ||
			pane->made < root->hidden)
		{
			refs[out++] = refs[i];
			continue;
		}
		gone += pane->ngroups;
		pane->dropped = s->v->version;
		dropped[ndropped++] = refs[i].pane;
	}
	root->npanes = out;
	LWLockRelease(&s->v->publish_lock);
	forget_dropped(s);
	for (uint32 i = 0; i < ndropped; i++)
		pane_free(s, dropped[i]);
	count_dropped(s, gone);
	pg_atomic_write_u64(&s->v->shown_groups,
						pg_atomic_read_u64(&s->v->shown_groups) - gone);
	pfree(dropped);
}

void
weir_state_show(WeirState *s, int64 through, WeirPosition position,
				TimestampTz watermark)
{
	WeirViewShared *v = s->v;
	Root *root = s->root;
	PaneRef *refs = root->npanes > 0 ? at(root->panes) : NULL;
	uint32 out = 0;
	uint64 gone = 0;

	Assert(root->hidden != 0);
	cancel_reservation(s);
	in_doubt = v;
	LWLockAcquire(&v->publish_lock, LW_EXCLUSIVE);
	v->version++;
	for (uint32 i = 0; i < root->npanes && TransactionIdIsValid(s->mover); i++)
	{
		Pane *pane = at(refs[i].pane);

		if (pane->stamp != s->mover)
		{
			refs[out++] = refs[i];
			continue;
		}
		gone += pane->ngroups;
		pane->dropped = v->version;
		pane->next_limbo = root->limbo;
		root->limbo = refs[i].pane;
	}
	if (TransactionIdIsValid(s->mover))
	{
		root->npanes = out;
		root->swept = Max(root->swept, through);
		root->swept_at = v->version;
		Assert(root->ngone < root->gone_size);
		((TransactionId *) at(root->gone))[root->ngone++] = s->mover;
	}
	root->hidden = 0;
	pg_atomic_write_u64(&v->position, position);
	v->watermark = watermark;
	LWLockRelease(&v->publish_lock);
	ConditionVariableBroadcast(&v->progress_cv);
	s->mover = InvalidTransactionId;
	forget_dropped(s);
	collect_garbage(s);
	count_dropped(s, gone);
}

void
weir_state_shown(void)
{
	in_doubt = NULL;
}

void
weir_state_doubt(void)
{
	if (in_doubt == NULL)
		return;
	LWLockAcquire(&in_doubt->publish_lock, LW_EXCLUSIVE);
	in_doubt->state_valid = false;
	LWLockRelease(&in_doubt->publish_lock);
	in_doubt = NULL;
}

/* Panes are stamped up to some end, so the first tells. */
bool
weir_state_has_stamps(WeirState *s)
{
	return s->root->ngone > 0 ||
		   (s->root->npanes > 0 &&
			TransactionIdIsValid(pane_number(s->root, 0)->stamp));
}

/* ---- walk ---- */

/* Returns the bytes of a group that was called back with. */
static inline Size
walk_slot(int64 end, Slot *slot, uint64 after, WeirGroupCallback callback,
		  void *arg, uint64 *passed)
{
	WeirGroup g;

	if (slot_state(slot->word) != SLOT_LIVE)
		return 0;
	if (slot->begin <= after)
	{
		(*passed)++;
		return 0;
	}
	slot_group(slot, end, &g);
	callback(&g, arg);
	return g.keylen + g.statelen;
}

static void
walk_blocks(int64 end, dsa_pointer first, uint64 after,
			WeirGroupCallback callback, void *arg, uint64 *passed)
{
	while (DsaPointerIsValid(first))
	{
		GroupBlock *block = at(first);
		uint32 off = MAXALIGN(sizeof(GroupBlock));

		CHECK_FOR_INTERRUPTS();
		while (off < block->used)
		{
			Slot *slot = (Slot *) ((char *) block + off);

			(void) walk_slot(end, slot, after, callback, arg, passed);
			off += slot_size(slot->word);
		}
		first = block->next;
	}
}

static void
walk_pane(Pane *pane, uint64 after, WeirGroupCallback callback, void *arg,
		  uint64 *passed)
{
	if (pane->max_version <= after)
	{
		*passed += pane->ngroups;
		return;
	}
	walk_blocks(pane->end, pane->legacy, after, callback, arg, passed);
	for (int p = 0; p < pane->nparts; p++)
		walk_blocks(pane->end, pane_part_number(pane, p)->first, after,
					callback, arg, passed);
}

static int
compare_dirty(const void *a, const void *b)
{
	const DirtySlot *x = a;
	const DirtySlot *y = b;

	if (x->pane != y->pane)
		return x->pane < y->pane ? -1 : 1;
	if (x->number != y->number)
		return x->number < y->number ? -1 : 1;
	return x->slot < y->slot ? -1 : x->slot > y->slot;
}

#ifdef USE_ASSERT_CHECKING
static void
count_group(const WeirGroup *g, void *arg)
{
	(*(uint64 *) arg)++;
}
#endif

/*
 * Walk what has been written since the state was durable, and only look at that.
 * Returns how many groups there are besides.
 */
static uint64
walk_dirty(WeirState *s, uint64 after, WeirGroupCallback callback, void *arg)
{
	const DirtySlot *last = NULL;
	Pane *pane = NULL;
	uint64 others = weir_state_written(s, 0);
	uint64 passed = 0;

	qsort(s->dirty, s->ndirty, sizeof(DirtySlot), compare_dirty);
	for (int i = 0; i < s->ndirty; i++)
	{
		const DirtySlot *d = &s->dirty[i];
		Slot *slot;

		CHECK_FOR_INTERRUPTS();
		if (last == NULL || d->pane != last->pane)
		{
			pane = pane_find(s, d->pane);
			if (pane != NULL && pane_is_closed(pane))
				pane = NULL;
		}
		else if (d->slot == last->slot && d->number == last->number)
			continue;
		last = d;
		if (pane == NULL || d->number != pane->number)
			continue;
		slot = at(d->slot);
		if (slot_state(slot->word) == SLOT_LIVE && slot->begin > after)
			others--;
		(void) walk_slot(pane->end, slot, after, callback, arg, &passed);
	}
	return others;
}

uint64
weir_state_walk(WeirState *s, int64 pane_end, uint64 after,
				WeirGroupCallback callback, void *arg)
{
	Root *root = s->root;
	uint64 passed = 0;

	if (pane_end != PG_INT64_MAX)
	{
		Pane *pane = pane_find(s, pane_end);

		if (pane != NULL)
			walk_pane(pane, after, callback, arg, &passed);
		return passed;
	}
	if (s->dirty_known && after >= root->clean_version)
	{
#ifdef USE_ASSERT_CHECKING
		uint64 dirty = 0;
		uint64 clean = 0;

		for (uint32 i = 0; i < root->npanes; i++)
			if (!pane_is_closed(pane_number(root, i)))
				walk_pane(pane_number(root, i), after, count_group, &dirty,
						  &clean);
		passed = walk_dirty(s, after, callback, arg);
		Assert(passed == clean);
		Assert(weir_state_written(s, 0) == dirty + clean);
		return passed;
#else
		return walk_dirty(s, after, callback, arg);
#endif
	}
	for (uint32 i = 0; i < root->npanes; i++)
	{
		Pane *pane = pane_number(root, i);

		if (!pane_is_closed(pane))
			walk_pane(pane, after, callback, arg, &passed);
	}
	return passed;
}

static void
walk_into(WeirWalk *walk, const Pane *pane)
{
	walk->begun = true;
	walk->pane = pane->end;
	walk->nparts = pane->nparts;
	walk->part = -1;
	walk->block = InvalidDsaPointer;
	walk->off = 0;
}

/* To the next block of the part; false: there is none. */
static bool
walk_next_block(WeirWalk *walk, dsa_pointer first)
{
	dsa_pointer next = DsaPointerIsValid(walk->block)
						   ? ((GroupBlock *) at(walk->block))->next
						   : first;

	/* an empty one can leave the list (give_back_blocks): not to stand there */
	while (DsaPointerIsValid(next) &&
		   ((GroupBlock *) at(next))->used == MAXALIGN(sizeof(GroupBlock)))
		next = ((GroupBlock *) at(next))->next;
	if (!DsaPointerIsValid(next))
		return false;
	walk->block = next;
	walk->off = MAXALIGN(sizeof(GroupBlock));
	return true;
}

/* False: the time is up. */
static bool
walk_part_on(WeirWalk *walk, dsa_pointer first, uint64 after, TimestampTz until,
			 WeirGroupCallback callback, void *arg)
{
	while (walk->off != 0 || walk_next_block(walk, first))
	{
		GroupBlock *block = at(walk->block);
		Size bytes = 0;

		CHECK_FOR_INTERRUPTS();
		while (walk->off < block->used && bytes < WALK_BYTES)
		{
			Slot *slot = (Slot *) ((char *) block + walk->off);

			if (slot->begin <= walk->through)
				bytes += walk_slot(walk->pane, slot, after, callback, arg,
								   &walk->passed);
			walk->off += slot_size(slot->word);
		}
		if (walk->off >= block->used)
			walk->off = 0;
		if (weir_now() >= until)
			return false;
	}
	return true;
}

bool
weir_state_walk_on(WeirState *s, WeirWalk *walk, uint64 after,
				   TimestampTz until, WeirGroupCallback callback, void *arg)
{
	Root *root = s->root;
	uint32 i = walk->begun ? pane_position(root, walk->pane) : 0;

	/* its slots could give way to others of other sizes */
	cancel_reservation(s);
	for (; i < root->npanes; i++)
	{
		Pane *pane = pane_number(root, i);

		if (!walk->begun || walk->pane != pane->end)
			walk_into(walk, pane);
		else if (walk->nparts != pane->nparts)
		{
			/* split: what was its part is its legacy now */
			if (walk->part == 0)
				walk->part = -1;
			walk->nparts = pane->nparts;
		}
		if (pane_is_closed(pane))
			continue;
		if (pane->max_version <= after)
		{
			walk->passed += pane->ngroups;
			continue;
		}
		for (; walk->part < (int) pane->nparts; walk->part++)
		{
			if (!walk_part_on(walk,
							  walk->part < 0
								  ? pane->legacy
								  : pane_part_number(pane, walk->part)->first,
							  after, until, callback, arg))
				return true;
			walk->block = InvalidDsaPointer;
		}
	}
	return false;
}

uint64
weir_state_written(WeirState *s, uint64 after)
{
	uint64 n = 0;

	for (uint32 i = 0; i < s->root->npanes; i++)
	{
		Pane *pane = pane_number(s->root, i);

		if (pane->max_version > after && !pane_is_closed(pane))
			n += pane->ngroups;
	}
	return n;
}

uint64
weir_state_dirty(WeirState *s)
{
	return s->dirty_known ? s->ndirty : PG_UINT64_MAX;
}

uint64
weir_state_writes(WeirState *s)
{
	return s->writes;
}

uint64
weir_state_version(WeirState *s)
{
	return s->v->version;
}

uint64
weir_state_clean_version(WeirState *s)
{
	return s->root->clean_version;
}

void
weir_state_mark_clean(WeirState *s, uint64 version)
{
	s->root->clean_version = version;
	s->ndirty = 0;
	s->dirty_known = version == s->v->version;
}

/* ---- readers ---- */

/* A pane as it was when the cut was opened. */
typedef struct CutPane
{
	int64 end;
	Pane *pane;
	TransactionId stamp;
} CutPane;

/* A group in a reader's copy; key and state follow, each MAXALIGNed. */
typedef struct Copied
{
	int64 pane;
	uint32 hash;
	uint32 keylen;
	uint32 statelen;
} Copied;

#define COPIED_HEADER MAXALIGN(sizeof(Copied))

typedef struct Chunk
{
	struct Chunk *next;
	Size size;
	Size used;
	char data[FLEXIBLE_ARRAY_MEMBER];
} Chunk;

#define CHUNK_SIZE	   ((Size) 64 * 1024 - 64)
#define SLOTS_PER_HOLD 1024 /* looked at under one hold of a lock */
#define PATIENCE	   4	/* broken cuts before the writer is held up */

typedef struct Reader
{
	WeirViewShared *v;
	uint64 cut;
	int64 closed; /* windows up to this end are in the heap */
	CutPane *panes;
	uint32 npanes;
	uint32 panes_size;
	TransactionId *gone;
	uint32 ngone;
	uint32 gone_size;

	/* the copy: full chunks in memory, then a file, then the current chunk */
	MemoryContext cxt;
	Chunk *head;
	Chunk **tail;
	Size kept; /* bytes of chunks in the list */
	BufFile *file;
	Chunk *chunk;
	bool locked;		/* publish_lock is held throughout */
	const char *layout; /* the caller's */
} Reader;

static void
cut_exit(int code, Datum arg)
{
	weir_state_release_cuts();
}

void
weir_state_release_cuts(void)
{
	if (my_cut.v == NULL)
		return;
	pg_atomic_write_u64(&my_cut.root->cuts[my_cut.index], 0);
	pg_memory_barrier(); /* nothing of the state is touched after this */
	pg_atomic_fetch_sub_u32(&my_cut.v->cuts, 1);
	my_cut.v = NULL;
}

static bool
cut_is_broken(void)
{
	return (pg_atomic_read_u64(&my_cut.root->cuts[my_cut.index]) &
			CUT_BROKEN) != 0;
}

/*
 * Open a cut at the last publish and note the panes.  False: no state in
 * memory.  publish_lock stays held if r->locked.
 */
static bool
cut_open(Reader *r, WeirPosition *position, TimestampTz *watermark)
{
	static bool registered = false;
	WeirViewShared *v = r->v;

	if (!registered)
	{
		before_shmem_exit(cut_exit, (Datum) 0);
		registered = true;
	}
	Assert(my_cut.v == NULL);
	for (;;)
	{
		Root *root;
		uint32 npanes;
		int index;

		CHECK_FOR_INTERRUPTS();
		LWLockAcquire(&v->publish_lock, LW_SHARED);
		/* "publishing" under this lock: the publisher is dead */
		if (!v->in_use || !v->state_valid || v->publishing ||
			!DsaPointerIsValid(v->root))
		{
			LWLockRelease(&v->publish_lock);
			return false;
		}
		root = at(v->root);
		if (!same_layout(root, r->layout))
		{
			LWLockRelease(&v->publish_lock);
			other_layout(v->view);
		}
		npanes = root->npanes;
		if (npanes > r->panes_size)
		{
			LWLockRelease(&v->publish_lock);
			if (r->panes != NULL)
				pfree(r->panes);
			r->panes_size = npanes + npanes / 8 + 8;
			r->panes =
				MemoryContextAllocHuge(r->cxt, r->panes_size * sizeof(CutPane));
			continue;
		}
		if (root->ngone > r->gone_size)
		{
			r->gone_size = root->ngone + 8;
			LWLockRelease(&v->publish_lock);
			r->gone = MemoryContextAllocHuge(r->cxt, r->gone_size *
														 sizeof(TransactionId));
			continue;
		}
		r->cut = root->hidden == 0 ? v->version : root->hidden - 1;
		for (index = 0; index < MAX_CUTS; index++)
		{
			uint64 none = 0;

			if (pg_atomic_read_u64(&root->cuts[index]) == 0 &&
				pg_atomic_compare_exchange_u64(&root->cuts[index], &none,
											   r->cut + 1))
				break;
		}
		if (index == MAX_CUTS)
		{
			LWLockRelease(&v->publish_lock);
			(void) WaitLatch(MyLatch,
							 WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
							 1L, PG_WAIT_EXTENSION);
			ResetLatch(MyLatch);
			continue;
		}
		pg_atomic_fetch_add_u32(&v->cuts, 1);
		my_cut.root = root;
		my_cut.index = index;
		my_cut.v = v;

		r->closed = root->swept;
		r->ngone = root->ngone;
		if (r->ngone > 0)
			memcpy(r->gone, at(root->gone), r->ngone * sizeof(TransactionId));
		r->npanes = 0;
		for (uint32 i = 0; i < npanes; i++)
		{
			PaneRef *ref = (PaneRef *) at(root->panes) + i;
			Pane *pane = at(ref->pane);
			CutPane *p = &r->panes[r->npanes];

			if (pane->made > r->cut)
				continue;
			p->end = ref->end;
			p->pane = pane;
			p->stamp = pane->stamp;
			r->npanes++;
		}
		*position = pg_atomic_read_u64(&v->position);
		*watermark = v->watermark;
		if (!r->locked)
			LWLockRelease(&v->publish_lock);
		return true;
	}
}

/*
 * Do the pane's rows come from memory, not from the heap, for this snapshot?
 * The order of the questions matters: a transaction that commits between them
 * must count as running throughout.
 */
static bool
pane_is_shown(TransactionId stamp, Snapshot snapshot)
{
	if (!TransactionIdIsValid(stamp))
		return true;
	if (TransactionIdIsCurrentTransactionId(stamp))
		return false;
	if (snapshot != InvalidSnapshot && IsMVCCSnapshot(snapshot))
	{
		if (XidInMVCCSnapshot(stamp, snapshot))
			return true;
	}
	else if (TransactionIdIsInProgress(stamp))
		return true;
	return !TransactionIdDidCommit(stamp);
}

static Chunk *
chunk_make(Reader *r, Size size)
{
	Chunk *chunk;

	chunk = MemoryContextAllocHuge(r->cxt, offsetof(Chunk, data) + size);
	chunk->next = NULL;
	chunk->size = size;
	chunk->used = 0;
	return chunk;
}

/* The current chunk is full: put it away; room for at least "need" then. */
static void
chunk_next(Reader *r, Size need)
{
	Chunk *chunk = r->chunk;

	need = Max(need, CHUNK_SIZE);
	if (r->locked ||
		(r->file == NULL && r->kept + chunk->used <= (Size) work_mem * 1024))
	{
		if (chunk->used > 0)
		{
			*r->tail = chunk;
			r->tail = &chunk->next;
			r->kept += chunk->used;
		}
		else
			pfree(chunk);
		r->chunk = chunk_make(r, need);
		return;
	}
	if (r->file == NULL)
		r->file = BufFileCreateTemp(false);
	BufFileWrite(r->file, chunk->data, chunk->used);
	chunk->used = 0;
	if (chunk->size < need)
	{
		pfree(chunk);
		r->chunk = chunk_make(r, need);
	}
}

/* Copy a version; false (and what it needs): no room in the chunk. */
static inline bool
copy_slot(Reader *r, Slot *slot, int64 end, Size *need)
{
	Chunk *chunk = r->chunk;
	Size body = body_size(slot->keylen, slot->statelen);
	Copied *copied;

	*need = COPIED_HEADER + body;
	if (chunk->size - chunk->used < *need)
		return false;
	copied = (Copied *) (chunk->data + chunk->used);
	copied->pane = end;
	copied->hash = slot->hash;
	copied->keylen = slot->keylen;
	copied->statelen = slot->statelen;
	memcpy((char *) copied + COPIED_HEADER, slot_bytes(slot), body);
	chunk->used += *need;
	return true;
}

/* All versions of the cut in a list of blocks.  False: the cut is broken. */
static bool
copy_blocks(Reader *r, int64 end, LWLock *lock, dsa_pointer first)
{
	uint32 off = MAXALIGN(sizeof(GroupBlock));

	while (DsaPointerIsValid(first))
	{
		int budget = SLOTS_PER_HOLD;
		Size need = 0;
		bool full = false;
		bool broken;

		LWLockAcquire(lock, LW_SHARED);
		while (DsaPointerIsValid(first) && budget > 0 && !full)
		{
			GroupBlock *block = at(first);
			uint32 used = *(volatile uint32 *) &block->used;

			pg_read_barrier();
			while (off < used && budget-- > 0)
			{
				Slot *slot = (Slot *) ((char *) block + off);
				uint32 word = *(volatile uint32 *) &slot->word;

				if (slot->begin != 0 && slot->begin <= r->cut &&
					(slot_state(word) == SLOT_LIVE ||
					 (slot_state(word) == SLOT_OLD && slot->u.end > r->cut)) &&
					!copy_slot(r, slot, end, &need))
				{
					full = true;
					break;
				}
				off += slot_size(word);
			}
			if (off >= used)
			{
				first = block->next;
				off = MAXALIGN(sizeof(GroupBlock));
			}
		}
		broken = cut_is_broken();
		LWLockRelease(lock);
		if (broken)
			return false;
		if (full)
			chunk_next(r, need);
		if (!r->locked)
		{
			CHECK_FOR_INTERRUPTS();
			weir_debug_point("state-read-on");
		}
	}
	return true;
}

/* The same for the groups with one hash, through the table. */
static bool
copy_hash(Reader *r, CutPane *p, uint32 hash)
{
	LWLock *lock = &r->v->part_lock[pane_lock_number(p->pane, hash)];
	Size mark;
	Size need = 0;
	bool full;
	bool broken;

	do
	{
		Part *part = pane_part(p->pane, hash);

		full = false;
		mark = r->chunk->used;
		LWLockAcquire(lock, LW_SHARED);
		if (part->nbuckets > 0)
		{
			dsa_pointer next = ((dsa_pointer *) at(
				part->buckets))[hash & (part->nbuckets - 1)];

			while (DsaPointerIsValid(next) && !full)
			{
				Slot *slot = at(next);
				dsa_pointer older = slot->u.older;

				next = slot->next;
				if (slot->hash != hash)
					continue;
				while (slot->begin > r->cut && DsaPointerIsValid(older))
				{
					slot = at(older);
					older = slot->next;
				}
				if (slot->begin <= r->cut)
					full = !copy_slot(r, slot, p->end, &need);
			}
		}
		broken = cut_is_broken();
		LWLockRelease(lock);
		if (full)
		{
			r->chunk->used = mark;
			chunk_next(r, need * 2);
		}
	} while (full && !broken);
	return !broken;
}

static bool
copy_pane(Reader *r, CutPane *p, const uint32 *hash)
{
	Pane *pane = p->pane;

	if (hash != NULL)
		return copy_hash(r, p, *hash);
	if (DsaPointerIsValid(pane->legacy) &&
		!copy_blocks(r, p->end, &r->v->part_lock[pane->lock], pane->legacy))
		return false;
	for (int i = 0; i < pane->nparts; i++)
	{
		Part *part = pane_part_number(pane, i);
		int lock = pane->nparts == 1 ? pane->lock : i;

		if (!copy_blocks(r, p->end, &r->v->part_lock[lock], part->first))
			return false;
	}
	return true;
}

static void
give_group(const Copied *copied, const char *body, WeirGroupCallback callback,
		   void *arg)
{
	WeirGroup g;

	g.pane = copied->pane;
	g.hash = copied->hash;
	g.keylen = copied->keylen;
	g.statelen = copied->statelen;
	g.key = body;
	g.state = body + MAXALIGN(copied->keylen);
	callback(&g, arg);
}

static void
give_chunk(Chunk *chunk, WeirGroupCallback callback, void *arg)
{
	for (Size off = 0; off < chunk->used;)
	{
		Copied *copied = (Copied *) (chunk->data + off);

		CHECK_FOR_INTERRUPTS();
		give_group(copied, (char *) copied + COPIED_HEADER, callback, arg);
		off += COPIED_HEADER + body_size(copied->keylen, copied->statelen);
	}
}

static void
read_exactly(BufFile *file, void *to, Size size)
{
	if (BufFileRead(file, to, size) != size)
		ereport(ERROR,
				(errcode_for_file_access(),
				 errmsg("could not read temporary file of a view's state")));
}

static void
give_file(Reader *r, WeirGroupCallback callback, void *arg)
{
	Size room = CHUNK_SIZE;
	char *body = MemoryContextAlloc(r->cxt, room);
	union
	{
		Copied copied;
		char bytes[COPIED_HEADER];
	} header;

	if (BufFileSeek(r->file, 0, 0, SEEK_SET) != 0)
		ereport(ERROR,
				(errcode_for_file_access(),
				 errmsg("could not rewind temporary file of a view's state")));
	while (BufFileRead(r->file, header.bytes, COPIED_HEADER) == COPIED_HEADER)
	{
		Size size = body_size(header.copied.keylen, header.copied.statelen);

		CHECK_FOR_INTERRUPTS();
		if (size > room)
		{
			pfree(body);
			room = size;
			body = MemoryContextAllocHuge(r->cxt, room);
		}
		read_exactly(r->file, body, size);
		give_group(&header.copied, body, callback, arg);
	}
}

/*
 * Copy the cut just opened and let go of it.  False: it has been broken.  An
 * error ends the (sub)transaction, and that lets go of it, too.
 */
static bool
copy_cut(Reader *r, Snapshot snapshot, const uint32 *hash)
{
	bool done = true;

	weir_debug_point("state-read");
	for (uint32 i = 0; i < r->npanes && done; i++)
	{
		if (pane_is_shown(r->panes[i].stamp, snapshot))
			done = copy_pane(r, &r->panes[i], hash);
		else
			r->closed = Max(r->closed, r->panes[i].end);
	}
	weir_state_release_cuts();
	return done;
}

bool
weir_state_read(WeirViewShared *v, const char *layout, Snapshot snapshot,
				const uint32 *hash, WeirGroupCallback callback, void *arg,
				WeirPosition *position, TimestampTz *watermark, int64 *closed,
				List **unseen)
{
	Reader r = {.v = v};
	MemoryContext cxt;
	bool done = false;

	if (private_area.place != NULL)
		return false;
	(void) open_area();
	cxt = AllocSetContextCreate(CurrentMemoryContext, "weir state read",
								ALLOCSET_DEFAULT_SIZES);

	for (int attempt = 0; !done; attempt++)
	{
		MemoryContextReset(cxt);
		memset(&r, 0, sizeof(r));
		r.v = v;
		r.layout = layout;
		r.cxt = cxt;
		r.tail = &r.head;
		r.locked = attempt >= PATIENCE;
		r.chunk = chunk_make(&r, hash ? 8192 : CHUNK_SIZE);
		if (!cut_open(&r, position, watermark))
		{
			MemoryContextDelete(cxt);
			return false;
		}
		done = copy_cut(&r, snapshot, hash);
		if (r.locked)
			LWLockRelease(&v->publish_lock);
		if (!done && r.file != NULL)
			BufFileClose(r.file);
	}
	*closed = r.closed;
	*unseen = NIL;
	for (uint32 i = 0; i < r.ngone; i++)
		if (pane_is_shown(r.gone[i], snapshot))
			*unseen = lappend_int(*unseen, (int) r.gone[i]);

	for (Chunk *chunk = r.head; chunk != NULL; chunk = chunk->next)
		give_chunk(chunk, callback, arg);
	if (r.file != NULL)
	{
		give_file(&r, callback, arg);
		BufFileClose(r.file);
	}
	give_chunk(r.chunk, callback, arg);
	MemoryContextDelete(cxt);
	return true;
}

Size
weir_state_memory_used(void)
{
	Size used = 0;

	for (int i = 0; i < WEIR_MAX_VIEWS; i++)
		if (weir_shared->views[i].in_use)
			used += pg_atomic_read_u64(&weir_shared->views[i].state_bytes);
	return used;
}

bool
weir_state_memory_is_scarce(const WeirViewShared *v)
{
	Size limit = role_memory(v);

	return weir_state_memory_used() >=
			   (Size) weir_state_memory * 1024 / 10 * 6 ||
		   (limit > 0 && role_memory_used(v) >= limit / 10 * 6);
}

int
weir_state_memory_limit(const WeirViewShared *v)
{
	Size limit = role_memory(v);

	return limit > 0 ? (int) Min((Size) weir_state_memory, limit / 1024)
					 : weir_state_memory;
}
