/*-------------------------------------------------------------------------
 *
 * view.c
 *	  SELECT of a continuous view: Append(final rows in v's heap, live rows
 *	  from the state), one consistent cut per statement; planner hooks.
 *
 * Where it hooks in:
 *	get_relation_info_hook	adds the live groups to the size of v
 *	set_rel_pathlist_hook	each path P of v becomes Append(P, live), and for
 *							an ordered P also MergeAppend(P, Sort(live))
 *	planner_hook			statements that name v and may run EvalPlanQual
 *							get v as a subquery (below)
 *	"Weir Live"				the CustomScan that returns live rows
 *
 * The image.  Live rows are copied out of the state, finalised as the view's
 * owner and kept by the process: once for each (statement, view), at the first
 * row asked for, so after the statement's snapshot.  "Statement" is the
 * snapshot its executor state holds: every scan that runs under the same
 * registered snapshot (subplans, EvalPlanQual's copies, STABLE functions)
 * finds the image in the list below.  It dies with the last executor state
 * that uses it (memory context callbacks, so errors need no code).  An image
 * is full, or, where the statement scans v once and asks for one key that is
 * constant for the whole statement, holds only the groups with that hash.  A
 * full image keeps its rows in memory up to work_mem, beyond that in a
 * temporary file, with a hash index for rescans with changing keys.
 *
 * Which live rows a snapshot may see is decided by state.c (stamped panes) or
 * checkpoint.c (blobs), both with the statement's own snapshot: across a
 * window becoming final each row shows once, here or in v's heap.
 *
 * EvalPlanQual expects one scan node per range table entry and fetches a
 * joined row again by its ctid; neither is true of v.  So wherever a row mark
 * may come to stand beside v (UPDATE, DELETE, MERGE, FOR UPDATE of others,
 * and all that could be pulled up into such a level) v is wrapped in a
 * security_barrier subquery, which the planner does not flatten and whose
 * rows are marked by copy.
 *
 * Parallel plans: v is scanned by the leader, outside of any Gather (its rel
 * is not parallel safe), because two processes would take two images.  The
 * rest of the statement may be parallel.
 *
 * Invariants
 *	1. No user code runs while a cut is open (state.c copies, then calls).
 *	2. User code of the view runs inside weir_secure_enter(owner), never as
 *	   the reader; the reader's expressions (keys looked up) never as owner.
 *	3. All clauses are rechecked on live rows; a lookup may only be too wide.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/relation.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/pg_class.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_type.h"
#include "common/hashfn.h"
#include "executor/executor.h"
#include "fmgr.h"
#include "lib/ilist.h"
#include "miscadmin.h"
#include "nodes/extensible.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/clauses.h"
#include "optimizer/cost.h"
#include "optimizer/optimizer.h"
#include "optimizer/pathnode.h"
#include "optimizer/paths.h"
#include "optimizer/plancat.h"
#include "optimizer/planner.h"
#include "optimizer/restrictinfo.h"
#include "parser/parse_coerce.h"
#include "parser/parsetree.h"
#include "port/pg_bitutils.h"
#include "storage/buffile.h"
#include "storage/procarray.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/hsearch.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/ruleutils.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"

#include "aggregate.h"
#include "catalog.h"
#include "checkpoint.h"
#include "compat.h"
#include "debug.h"
#include "expand.h"
#include "final.h"
#include "plan.h"
#include "secure.h"
#include "shmem.h"
#include "state.h"
#include "view.h"
#include "window.h"

PG_FUNCTION_INFO_V1(weir_view_is_final);

static planner_hook_type prev_planner_hook = NULL;
static set_rel_pathlist_hook_type prev_pathlist_hook = NULL;
static get_relation_info_hook_type prev_relation_info_hook = NULL;

/* ---------------------------------------------------------------------- */
/* what this process knows of a view                                       */
/* ---------------------------------------------------------------------- */

typedef struct ViewInfo
{
	Oid view;
	bool valid;		   /* false: build again at the next use */
	int pins;		   /* executor states and callers using it */
	MemoryContext cxt; /* holds this struct and all below */
	WeirViewPlan *plan;
	WeirViewOptions *options;
	char hazard; /* PROPARALLEL_* of the view's functions */
} ViewInfo;

typedef struct ViewSlot
{
	Oid view;		/* hash key */
	ViewInfo *info; /* or NULL */
} ViewSlot;

static HTAB *view_slots = NULL;
static uint64 invalidations = 0;

static void
invalidate_view(Oid relid)
{
	HASH_SEQ_STATUS seq;
	ViewSlot *slot;

	invalidations++;
	if (view_slots == NULL)
		return;
	hash_seq_init(&seq, view_slots);
	while ((slot = hash_seq_search(&seq)) != NULL)
	{
		if (slot->info != NULL && (!OidIsValid(relid) || slot->view == relid ||
								   slot->info->plan->stream == relid))
			slot->info->valid = false;
	}
}

static void
relcache_changed(Datum arg, Oid relid)
{
	invalidate_view(relid);
}

static void
syscache_changed(Datum arg, int cacheid, uint32 hashvalue)
{
	invalidate_view(InvalidOid);
}

static void
unpin_info(ViewInfo *info)
{
	ViewSlot *slot;

	if (--info->pins > 0 || info->valid)
		return;
	slot = hash_search(view_slots, &info->view, HASH_FIND, NULL);
	if (slot == NULL || slot->info != info)
		MemoryContextDelete(info->cxt); /* it was replaced meanwhile */
}

/* Views that are gone leave nothing but stale infos behind. */
static void
forget_stale_infos(void)
{
	HASH_SEQ_STATUS seq;
	ViewSlot *slot;

	hash_seq_init(&seq, view_slots);
	while ((slot = hash_seq_search(&seq)) != NULL)
	{
		if (slot->info != NULL && (slot->info->valid || slot->info->pins > 0))
			continue;
		if (slot->info != NULL)
			MemoryContextDelete(slot->info->cxt);
		(void) hash_search(view_slots, &slot->view, HASH_REMOVE, NULL);
	}
}

/*
 * The plan and options of a continuous view; the caller holds a lock on it.
 * Good until the next call or invalidation unless pinned (info->pins++).
 */
static ViewInfo *
view_info(Oid view)
{
	ViewSlot *slot;
	ViewInfo *info;
	MemoryContext cxt;
	MemoryContext old;
	HeapTuple tuple;
	Oid owner;
	WeirSecure secure;
	Query *query;
	uint64 before;
	bool found;

	if (view_slots == NULL)
	{
		HASHCTL ctl = {.keysize = sizeof(Oid),
					   .entrysize = sizeof(ViewSlot),
					   .hcxt = CacheMemoryContext};

		view_slots = hash_create("weir views", 16, &ctl,
								 HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	}
	slot = hash_search(view_slots, &view, HASH_FIND, NULL);
	if (slot != NULL && slot->info != NULL && slot->info->valid)
		return slot->info;

	tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(view));
	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for relation %u", view);
	owner = ((Form_pg_class) GETSTRUCT(tuple))->relowner;
	ReleaseSysCache(tuple);

	before = invalidations;
	cxt = AllocSetContextCreate(CurrentMemoryContext, "weir view",
								ALLOCSET_SMALL_SIZES);
	old = MemoryContextSwitchTo(cxt);
	info = palloc0(sizeof(ViewInfo));
	info->view = view;
	info->cxt = cxt;
	info->options = weir_catalog_view_options(view);
	weir_secure_enter(&secure, owner, info->options->settings);
	query = weir_plan_view_query(view);
	info->hazard = max_parallel_hazard(query);
	info->plan = weir_plan_query(query, view, owner, false);
	weir_secure_leave(&secure);
	MemoryContextSwitchTo(old);
	/* what changed while planning shows at the next use */
	info->valid = (before == invalidations);

	forget_stale_infos();
	slot = hash_search(view_slots, &view, HASH_ENTER, &found);
	/* one that is left is pinned, and unpin_info() will delete it, or was made
	 * while this one was planned */
	if (found && slot->info != NULL && slot->info->pins == 0)
		MemoryContextDelete(slot->info->cxt);
	slot->info = info;
	MemoryContextSetParent(cxt, CacheMemoryContext);
	return info;
}

/*
 * Does this relation show live rows beside its heap?  Caller holds a lock.
 */
static bool
has_live_rows(Oid relid)
{
	Relation rel;
	bool populated;

	if (!weir_catalog_is_continuous_oid(relid))
		return false;
	rel = table_open(relid, NoLock);
	populated = RelationIsPopulated(rel);
	table_close(rel, NoLock);
	/* what is not populated is refused by the executor */
	return populated && view_info(relid)->options->emit == WEIR_EMIT_LIVE;
}

/* Groups in memory that a reader may see, for the planner. */
static double
live_groups(Oid view)
{
	WeirViewShared *v;

	if (weir_shared == NULL)
		return 0;
	v = weir_shmem_view(view);
	return v == NULL ? 0 : (double) pg_atomic_read_u64(&v->shown_groups);
}

/* ---------------------------------------------------------------------- */
/* the image: live rows of one cut                                         */
/* ---------------------------------------------------------------------- */

typedef struct Image
{
	dlist_node link;
	int refs;
	MemoryContext cxt; /* holds this struct and all below */

	/* identity */
	Oid view;
	Snapshot snapshot; /* registered by the executor states that use
								 * this image, so the address is unique */
	CommandId curcid;
	bool full; /* else only groups whose key has this hash */
	uint32 hash;

	TimestampTz watermark; /* of the cut */
	int64 lateness;		   /* then in force; -1: the checkpoint's */
	uint64 groups;		   /* read; nrows passed HAVING */

	uint32 nrows;
	uint32 max_rows;
	uint32 *hashes;
	MinimalTuple *rows;	   /* NULL once spilled */
	MemoryContext row_cxt; /* holds the tuples of rows[] */
	Size row_bytes;
	BufFile *file;	/* NULL: in memory */
	uint64 *places; /* in the file: number of file, offset */

	/* index by hash, made when first needed */
	uint32 *heads; /* row + 1 of the chain, 0: none */
	uint32 *nexts;
	uint32 mask;
} Image;

static dlist_head images = DLIST_STATIC_INIT(images);

static void
image_free(Image *image)
{
	if (image->file != NULL)
		BufFileClose(image->file);
	MemoryContextDelete(image->cxt);
}

static void
image_unref(Image *image)
{
	if (--image->refs > 0)
		return;
	dlist_delete(&image->link);
	image_free(image);
}

static Image *
image_find(Oid view, Snapshot snapshot, bool full, uint32 hash)
{
	dlist_iter iter;

	dlist_foreach(iter, &images)
	{
		Image *image = dlist_container(Image, link, iter.cur);

		if (image->view == view && image->snapshot == snapshot &&
			image->curcid == snapshot->curcid &&
			(image->full || (!full && image->hash == hash)))
			return image;
	}
	return NULL;
}

/* Move all rows to a temporary file, where the coming ones go too. */
static void
image_spill(Image *image)
{
	MemoryContext old = MemoryContextSwitchTo(image->cxt);
	BufFile *file;

	/*
	 * The file outlives (sub)transactions as far as the server's own clean-up
	 * is concerned: it is closed with the image, by a memory context callback.
	 */
	file = BufFileCreateTemp(true);
	image->file = file;
	image->places = MemoryContextAllocHuge(image->cxt, (Size) image->max_rows *
														   sizeof(uint64));
	for (uint32 i = 0; i < image->nrows; i++)
	{
		int fileno;
		off_t offset;

		CHECK_FOR_INTERRUPTS();
		BufFileTell(file, &fileno, &offset);
		image->places[i] = ((uint64) fileno << 32) | (uint64) offset;
		BufFileWrite(file, image->rows[i], image->rows[i]->t_len);
	}
	pfree(image->rows);
	image->rows = NULL;
	MemoryContextDelete(image->row_cxt);
	image->row_cxt = NULL;
	MemoryContextSwitchTo(old);
}

static void
image_add(Image *image, TupleTableSlot *slot, uint32 hash)
{
	MemoryContext old;
	MinimalTuple tuple;

	if (image->nrows == image->max_rows)
	{
		if (image->max_rows >= PG_INT32_MAX / 2)
			ereport(ERROR,
					(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
					 errmsg("too many live rows in continuous view \"%s\"",
							get_rel_name(image->view))));
		image->max_rows *= 2;
		image->hashes = repalloc_huge(image->hashes,
									  (Size) image->max_rows * sizeof(uint32));
		if (image->file == NULL)
			image->rows = repalloc_huge(image->rows, (Size) image->max_rows *
														 sizeof(MinimalTuple));
		else
			image->places = repalloc_huge(
				image->places, (Size) image->max_rows * sizeof(uint64));
	}
	image->hashes[image->nrows] = hash;
	if (image->file == NULL)
	{
		old = MemoryContextSwitchTo(image->row_cxt);
		tuple = ExecCopySlotMinimalTuple(slot);
		MemoryContextSwitchTo(old);
		image->rows[image->nrows++] = tuple;
		image->row_bytes += GetMemoryChunkSpace(tuple) + sizeof(MinimalTuple);
		if (image->row_bytes > (Size) work_mem * 1024)
			image_spill(image);
	}
	else
	{
		int fileno;
		off_t offset;

		tuple = ExecCopySlotMinimalTuple(slot);
		BufFileTell(image->file, &fileno, &offset);
		image->places[image->nrows++] =
			((uint64) fileno << 32) | (uint64) offset;
		BufFileWrite(image->file, tuple, tuple->t_len);
		pfree(tuple);
	}
}

/* Row i into a slot for minimal tuples. */
static void
image_get(Image *image, uint32 i, TupleTableSlot *slot)
{
	MinimalTuple tuple;
	uint32 len;

	if (image->file == NULL)
	{
		ExecStoreMinimalTuple(image->rows[i], slot, false);
		return;
	}
	if (BufFileSeek(image->file, (int) (image->places[i] >> 32),
					(off_t) (image->places[i] & 0xFFFFFFFF), SEEK_SET) != 0 ||
		BufFileRead(image->file, &len, sizeof(len)) != sizeof(len) ||
		len < SizeofMinimalTupleHeader || len > MaxAllocSize)
		ereport(ERROR,
				(errcode_for_file_access(),
				 errmsg("could not read live rows from temporary file")));
	tuple = MemoryContextAlloc(slot->tts_mcxt, len);
	tuple->t_len = len;
	if (BufFileRead(image->file, (char *) tuple + sizeof(len),
					len - sizeof(len)) != len - sizeof(len))
		ereport(ERROR,
				(errcode_for_file_access(),
				 errmsg("could not read live rows from temporary file")));
	ExecStoreMinimalTuple(tuple, slot, true);
}

static void
image_index(Image *image)
{
	uint32 size;

	if (image->heads != NULL || image->nrows == 0)
		return;
	size = pg_nextpower2_32(Max(image->nrows, 16));
	image->nexts = MemoryContextAllocHuge(image->cxt,
										  (Size) image->nrows * sizeof(uint32));
	image->heads =
		MemoryContextAllocExtended(image->cxt, (Size) size * sizeof(uint32),
								   MCXT_ALLOC_HUGE | MCXT_ALLOC_ZERO);
	image->mask = size - 1;
	/* backwards, so that chains are in row order */
	for (uint32 i = image->nrows; i-- > 0;)
	{
		uint32 *head = &image->heads[image->hashes[i] & image->mask];

		image->nexts[i] = *head;
		*head = i + 1;
	}
}

static Image *
image_make(Oid view, Snapshot snapshot, const uint32 *hash)
{
	MemoryContext cxt = AllocSetContextCreate(
		CurrentMemoryContext, "weir live rows", ALLOCSET_DEFAULT_SIZES);
	Image *image = MemoryContextAllocZero(cxt, sizeof(Image));

	image->cxt = cxt;
	image->view = view;
	image->snapshot = snapshot;
	image->curcid = snapshot->curcid;
	image->full = (hash == NULL);
	image->hash = hash ? *hash : 0;
	image->watermark = WEIR_NO_TIME;
	image->max_rows = 64;
	image->hashes = MemoryContextAlloc(cxt, image->max_rows * sizeof(uint32));
	image->rows =
		MemoryContextAlloc(cxt, image->max_rows * sizeof(MinimalTuple));
	image->row_cxt =
		AllocSetContextCreate(cxt, "weir live tuples", ALLOCSET_DEFAULT_SIZES);
	return image;
}

/* What turns groups into rows of the image. */
typedef struct Maker
{
	const WeirViewPlan *plan;
	WeirFinalizer *finalizer;
	WeirExpander *expander; /* or NULL */
	const char *layout;
	WeirKeys *keys;
	MemoryContext per_row;
	bool hashed;		/* groups come with their hash, already filtered */
	const uint32 *hash; /* NULL: all groups */
	Datum *values;
	bool *nulls;
	Image *image;
} Maker;

/*
 * WeirGroupCallback.  Runs the view's user code, as its owner; the cut that
 * the group was copied from is closed.
 */
static void
add_group(const WeirGroup *g, void *arg)
{
	Maker *maker = arg;
	Image *image = maker->image;
	uint32 hash = g->hash;
	TupleTableSlot *slot;
	MemoryContext old;

	CHECK_FOR_INTERRUPTS();
	MemoryContextReset(maker->per_row);
	old = MemoryContextSwitchTo(maker->per_row);
	if (!maker->hashed)
	{
		weir_keys_deform(maker->keys, g->key, maker->values, maker->nulls);
		hash = weir_keys_hash(maker->keys, maker->values, maker->nulls);
	}
	if (maker->hash == NULL || *maker->hash == hash)
	{
		image->groups++;
		slot = weir_final_row(maker->finalizer, g);
		if (slot != NULL)
			image_add(image, slot, hash);
	}
	MemoryContextSwitchTo(old);
}

/*
 * WeirGroupCallback, for views whose groups are shown several times: keep it,
 * to be shown when all are there.
 */
static void
keep_group(const WeirGroup *g, void *arg)
{
	Maker *maker = arg;
	WeirGroup group = *g;

	if (!maker->hashed)
	{
		MemoryContext old = MemoryContextSwitchTo(maker->per_row);

		weir_keys_deform(maker->keys, g->key, maker->values, maker->nulls);
		group.hash = weir_keys_hash(maker->keys, maker->values, maker->nulls);
		MemoryContextSwitchTo(old);
		MemoryContextReset(maker->per_row);
	}
	if (maker->hash == NULL || *maker->hash == group.hash)
		weir_expand_add(maker->expander, &group, true);
}

/* A group that has seen no row, of the key in maker->values and nulls. */
static void
add_empty_group(Maker *maker)
{
	WeirGroup g;

	g.pane = WEIR_PANE_NONE;
	g.hash = weir_keys_hash(maker->keys, maker->values, maker->nulls);
	g.key = weir_keys_form(maker->keys, maker->values, maker->nulls, &g.keylen);
	g.state = weir_final_empty(maker->finalizer, &g.statelen);
	add_group(&g, maker);
}

/*
 * Before a view has seen any row it has the group that there is without GROUP
 * BY, and one for each empty set of GROUPING SETS.
 */
static void
add_empty_groups(Maker *maker)
{
	const WeirViewPlan *plan = maker->plan;

	maker->hashed = true;
	memset(maker->nulls, true, (plan->nkeys + 1) * sizeof(bool));
	if (!plan->grouped)
		add_empty_group(maker);
	for (int set = 0; set < plan->nsets; set++)
	{
		if (!bms_is_empty(plan->set_keys[set]))
			continue;
		maker->values[plan->nkeys - 1] = Int32GetDatum(set);
		maker->nulls[plan->nkeys - 1] = false;
		add_empty_group(maker);
	}
}

/* The hash of the keys of a row of the view; 0: it does not show them all. */
static uint32
row_hash(Maker *maker, TupleTableSlot *slot)
{
	const WeirViewPlan *plan = maker->plan;

	for (int k = 0; k < plan->nkeys; k++)
	{
		int c = 0;

		if (plan->keys[k].is_window)
			continue;
		while (c < list_length(plan->targetlist) && plan->column_key[c] != k)
			c++;
		if (c == list_length(plan->targetlist))
			return 0;
		maker->values[k] = slot_getattr(slot, c + 1, &maker->nulls[k]);
	}
	return weir_keys_hash(maker->keys, maker->values, maker->nulls);
}

/*
 * Final rows of these transactions, of windows that have left the memory: the
 * snapshot does not see them, but they were live for it.
 */
static void
add_unseen_rows(Maker *maker, Oid view, List *unseen)
{
	Relation rel = table_open(view, AccessShareLock);
	TupleTableSlot *slot = table_slot_create(rel, NULL);
	TableScanDesc scan = table_beginscan(rel, SnapshotAny, 0, NULL);

	while (table_scan_getnextslot(scan, ForwardScanDirection, slot))
	{
		HeapTuple tuple = ExecFetchSlotHeapTuple(slot, false, NULL);
		MemoryContext old;
		uint32 hash;

		CHECK_FOR_INTERRUPTS();
		if (!list_member_int(unseen,
							 (int) HeapTupleHeaderGetRawXmin(tuple->t_data)))
			continue;
		MemoryContextReset(maker->per_row);
		old = MemoryContextSwitchTo(maker->per_row);
		hash = row_hash(maker, slot);
		if (maker->hash == NULL || *maker->hash == hash)
			image_add(maker->image, slot, hash);
		MemoryContextSwitchTo(old);
	}
	table_endscan(scan);
	ExecDropSingleTupleTableSlot(slot);
	table_close(rel, AccessShareLock);
}

/*
 * Fill maker->image with the groups of one cut that the snapshot may see.
 */
static void
make_rows(Maker *maker, Oid view, Snapshot snapshot)
{
	TimestampTz watermark = WEIR_NO_TIME;
	WeirPosition position;
	int64 closed = PG_INT64_MIN;
	int64 lateness;
	List *unseen = NIL;
	bool expand = weir_expand_needed(maker->plan);
	WeirGroupCallback callback = expand ? keep_group : add_group;
	ListCell *lc;

	for (;;)
	{
		WeirViewShared *v = weir_shmem_view(view);
		bool done;

		lateness =
			v != NULL ? (int64) pg_atomic_read_u64(&v->allowed_lateness) : -1;
		maker->image = image_make(view, snapshot, maker->hash);
		if (expand)
			maker->expander = weir_expand_create(maker->plan);
		maker->hashed = true;
		done =
			v != NULL &&
			weir_state_read(v, maker->layout, snapshot, maker->hash, callback,
							maker, &position, &watermark, &closed, &unseen);
		/* did that entry answer for this view all the time? */
		if (v == weir_shmem_view(view))
		{
			if (done)
			{
				/* of two, the one that calls less final */
				lateness = Max(
					lateness, (int64) pg_atomic_read_u64(&v->allowed_lateness));
				break;
			}
			lateness = -1;
			/* not in memory: the checkpoint visible to this snapshot */
			unseen = NIL;
			maker->hashed = false;
			if (!weir_checkpoint_read(view, maker->layout, snapshot, callback,
									  maker, &position, &watermark, &closed))
				watermark = WEIR_NO_TIME;
			break;
		}
		image_free(maker->image);
		maker->image = NULL;
		if (expand)
			weir_expand_free(maker->expander);
		CHECK_FOR_INTERRUPTS();
	}
	if (expand)
	{
		maker->hashed = true;
		weir_expand_finish(maker->expander, closed, PG_INT64_MAX, add_group,
						   maker);
		weir_expand_free(maker->expander);
	}
	if (unseen != NIL)
		add_unseen_rows(maker, view, unseen);
	foreach(lc, unseen)
	{
		TransactionId xid = (TransactionId) lfirst_int(lc);

		if (TransactionIdIsCurrentTransactionId(xid) ||
			TransactionIdIsInProgress(xid) || TransactionIdDidCommit(xid))
			continue;
		/* it was about to commit when we looked at the state, and did not */
		image_free(maker->image);
		maker->image = NULL;
		make_rows(maker, view, snapshot);
		return;
	}
	maker->image->watermark = watermark;
	maker->image->lateness = lateness;
	if (maker->image->groups == 0)
		add_empty_groups(maker);
}

/*
 * Take the image.  hash NULL: a full one.  The caller has looked for it with
 * image_find.  refs is 0: the caller takes its reference at once.
 */
static Image *
image_take(ViewInfo *info, Snapshot snapshot, const uint32 *hash)
{
	MemoryContext work = AllocSetContextCreate(
		CurrentMemoryContext, "weir live groups", ALLOCSET_DEFAULT_SIZES);
	MemoryContext old = MemoryContextSwitchTo(work);
	const WeirViewPlan *plan = info->plan;
	Maker *maker = palloc0(sizeof(Maker));
	Image *image;
	WeirSecure secure;

	weir_debug_point("view-image");
	maker->plan = plan;
	maker->hash = hash;
	maker->values = palloc((plan->nkeys + 1) * sizeof(Datum));
	maker->nulls = palloc((plan->nkeys + 1) * sizeof(bool));
	maker->per_row =
		AllocSetContextCreate(work, "weir live row", ALLOCSET_DEFAULT_SIZES);
	PG_TRY();
	{
		weir_secure_enter(&secure, plan->owner, info->options->settings);
		maker->keys = weir_keys_create(plan);
		maker->finalizer = weir_final_create(plan);
		maker->layout = weir_final_layout(maker->finalizer);
		make_rows(maker, info->view, snapshot);
		weir_final_free(maker->finalizer);
		weir_secure_leave(&secure);
	}
	PG_CATCH();
	{
		/* its file is ours alone to close */
		if (maker->image != NULL && maker->image->file != NULL)
			BufFileClose(maker->image->file);
		PG_RE_THROW();
	}
	PG_END_TRY();

	/* complete: it may outlive the current context */
	image = maker->image;
	MemoryContextSwitchTo(old);
	MemoryContextSetParent(image->cxt, TopMemoryContext);
	MemoryContextDelete(work);
	dlist_push_head(&images, &image->link);
	return image;
}

/* ---------------------------------------------------------------------- */
/* the scan                                                                */
/* ---------------------------------------------------------------------- */

/*
 * What a node holds beyond its memory; dropped by a callback when its
 * executor state's memory goes, however it goes.
 */
typedef struct NodeHolds
{
	MemoryContextCallback callback;
	ViewInfo *info;
	Image *image;
} NodeHolds;

typedef struct LiveScan
{
	CustomScanState css;

	/* keys to look up; from custom_exprs and custom_private */
	bool keyed;
	bool single;	   /* one key for the whole statement */
	List *key_states;  /* ExprState, as custom_exprs */
	List *key_numbers; /* 0-based key of each */

	NodeHolds *holds; /* NULL: nothing read yet */
	WeirKeys *keys;
	bool safe_hash; /* hashing runs built-in code only */
	bool ready;		/* keys evaluated, image taken */

	/* rows to return: all of the image, or those listed */
	bool listed;
	uint32 *list;
	uint32 max_list;
	uint32 nrows;
	int64 pos; /* one past the row returned last */
	TupleTableSlot *tuple_slot;

	uint64 groups_read; /* for EXPLAIN */
	uint64 rows_made;
} LiveScan;

/* custom_private: these lists, in this order */
enum
{
	PRIVATE_ATTNOS,		 /* of v, for EXPLAIN; parallel to custom_exprs */
	PRIVATE_KEYS,		 /* 0-based keys; parallel to custom_exprs */
	PRIVATE_NULL_ATTNOS, /* columns that must be NULL: no expression */
	PRIVATE_FLAGS		 /* keyed, single */
};

static Node *create_live_scan(CustomScan *scan);
static Plan *plan_live_path(PlannerInfo *root, RelOptInfo *rel,
							CustomPath *best_path, List *tlist, List *clauses,
							List *custom_plans);
static List *reparameterize_live_path(PlannerInfo *root, List *custom_private,
									  RelOptInfo *child_rel);
static void live_begin(CustomScanState *node, EState *estate, int eflags);
static TupleTableSlot *live_exec(CustomScanState *node);
static void live_end(CustomScanState *node);
static void live_rescan(CustomScanState *node);
static void live_explain(CustomScanState *node, List *ancestors,
						 ExplainState *es);

static const CustomPathMethods live_path_methods = {
	.CustomName = "Weir Live",
	.PlanCustomPath = plan_live_path,
	.ReparameterizeCustomPathByChild = reparameterize_live_path,
};
static const CustomScanMethods live_scan_methods = {
	.CustomName = "Weir Live",
	.CreateCustomScanState = create_live_scan,
};
static const CustomExecMethods live_exec_methods = {
	.CustomName = "Weir Live",
	.BeginCustomScan = live_begin,
	.ExecCustomScan = live_exec,
	.EndCustomScan = live_end,
	.ReScanCustomScan = live_rescan,
	.ExplainCustomScan = live_explain,
};

static Node *
create_live_scan(CustomScan *scan)
{
	LiveScan *ls = (LiveScan *) newNode(sizeof(LiveScan), T_CustomScanState);
	List *flags = list_nth(scan->custom_private, PRIVATE_FLAGS);

	ls->css.methods = &live_exec_methods;
	ls->keyed = linitial_int(flags) != 0;
	ls->single = lsecond_int(flags) != 0;
	ls->key_numbers = list_nth(scan->custom_private, PRIVATE_KEYS);
	return (Node *) ls;
}

static void
live_begin(CustomScanState *node, EState *estate, int eflags)
{
	LiveScan *ls = (LiveScan *) node;
	CustomScan *scan = (CustomScan *) node->ss.ps.plan;

	ls->key_states = ExecInitExprList(scan->custom_exprs, &node->ss.ps);
	ls->tuple_slot = ExecInitExtraTupleSlot(
		estate, RelationGetDescr(node->ss.ss_currentRelation),
		&TTSOpsMinimalTuple);
	if (!(eflags & EXEC_FLAG_EXPLAIN_ONLY))
		weir_shmem_require();
}

static void
drop_holds(void *arg)
{
	NodeHolds *holds = arg;

	if (holds->image != NULL)
		image_unref(holds->image);
	holds->image = NULL;
	if (holds->info != NULL)
		unpin_info(holds->info);
	holds->info = NULL;
}

/*
 * Hash functions of these types are the server's own and call no others; they
 * need no change of user.
 */
static bool
is_plain_key(const WeirKey *key)
{
	return key->type < FirstNormalObjectId && key->type != RECORDOID &&
		   key->type != RECORDARRAYOID;
}

/* First row asked for: get hold of the view's plan. */
static void
live_start(LiveScan *ls)
{
	EState *estate = ls->css.ss.ps.state;
	Oid view = RelationGetRelid(ls->css.ss.ss_currentRelation);
	NodeHolds *holds;
	WeirViewPlan *plan;
	MemoryContext old;

	old = MemoryContextSwitchTo(estate->es_query_cxt);
	holds = palloc0(sizeof(NodeHolds));
	holds->callback.func = drop_holds;
	holds->callback.arg = holds;
	MemoryContextRegisterResetCallback(estate->es_query_cxt, &holds->callback);
	ls->holds = holds;

	holds->info = view_info(view);
	holds->info->pins++;
	plan = holds->info->plan;
	if (ls->keyed)
	{
		WeirSecure secure;

		ls->safe_hash = true;
		for (int i = 0; i < plan->nkeys; i++)
		{
			if (!is_plain_key(&plan->keys[i]))
				ls->safe_hash = false;
		}
		weir_secure_enter(&secure, plan->owner, holds->info->options->settings);
		ls->keys = weir_keys_create(plan);
		weir_secure_leave(&secure);
	}
	MemoryContextSwitchTo(old);
}

/*
 * Is this the only scan of the view in the statement?  The range table lists
 * those of all subplans.
 */
static bool
scanned_once(EState *estate, Oid view)
{
	ListCell *lc;
	int n = 0;

	foreach(lc, estate->es_range_table)
	{
		RangeTblEntry *rte = lfirst_node(RangeTblEntry, lc);

		if (rte->rtekind == RTE_RELATION && rte->relid == view)
			n++;
	}
	return n <= 1;
}

/* Evaluate the keys.  False: one is NULL, so no row can match. */
static bool
evaluate_keys(LiveScan *ls, uint32 *hash)
{
	ViewInfo *info = ls->holds->info;
	ExprContext *econtext = ls->css.ss.ps.ps_ExprContext;
	MemoryContext old;
	Datum *values;
	bool *nulls;
	ListCell *state;
	ListCell *number;

	ResetExprContext(econtext);
	old = MemoryContextSwitchTo(econtext->ecxt_per_tuple_memory);
	values = palloc0(info->plan->nkeys * sizeof(Datum));
	nulls = palloc(info->plan->nkeys * sizeof(bool));
	memset(nulls, true, info->plan->nkeys * sizeof(bool));
	forboth(state, ls->key_states, number, ls->key_numbers)
	{
		int k = lfirst_int(number);

		values[k] =
			ExecEvalExpr((ExprState *) lfirst(state), econtext, &nulls[k]);
		if (nulls[k])
		{
			MemoryContextSwitchTo(old);
			return false;
		}
	}
	if (ls->safe_hash)
		*hash = weir_keys_hash(ls->keys, values, nulls);
	else
	{
		WeirSecure secure;

		weir_secure_enter(&secure, info->plan->owner, info->options->settings);
		*hash = weir_keys_hash(ls->keys, values, nulls);
		weir_secure_leave(&secure);
	}
	MemoryContextSwitchTo(old);
	return true;
}

static void
list_row(LiveScan *ls, uint32 row)
{
	if (ls->nrows == ls->max_list)
	{
		EState *estate = ls->css.ss.ps.state;

		ls->max_list = Max(ls->max_list * 2, 16);
		if (ls->list == NULL)
			ls->list = MemoryContextAlloc(estate->es_query_cxt,
										  ls->max_list * sizeof(uint32));
		else
			ls->list =
				repalloc_huge(ls->list, (Size) ls->max_list * sizeof(uint32));
	}
	ls->list[ls->nrows++] = row;
}

/*
 * Take or find the image and choose the rows to return.
 */
static void
live_prepare(LiveScan *ls)
{
	EState *estate = ls->css.ss.ps.state;
	Oid view = RelationGetRelid(ls->css.ss.ss_currentRelation);
	bool full = true;
	uint32 hash = 0;
	Image *image;

	if (ls->holds == NULL)
		live_start(ls);
	ls->ready = true;
	ls->pos = 0;
	ls->nrows = 0;
	ls->listed = false;
	if (ls->keyed)
	{
		if (!evaluate_keys(ls, &hash))
			return;
		full = !(ls->single && scanned_once(estate, view));
	}

	image = image_find(view, estate->es_snapshot, full, hash);
	if (image == NULL)
	{
		image = image_take(ls->holds->info, estate->es_snapshot,
						   full ? NULL : &hash);
		ls->groups_read += image->groups;
		ls->rows_made += image->nrows;
	}
	if (ls->holds->image != image)
	{
		Image *before = ls->holds->image;

		image->refs++;
		ls->holds->image = image;
		if (before != NULL)
			image_unref(before);
	}

	if (!ls->keyed || (!image->full && image->hash == hash))
	{
		ls->nrows = image->nrows;
		return;
	}
	ls->listed = true;
	image_index(image);
	if (image->heads == NULL)
		return;
	for (uint32 i = image->heads[hash & image->mask]; i != 0;
		 i = image->nexts[i - 1])
	{
		if (image->hashes[i - 1] == hash)
			list_row(ls, i - 1);
	}
}

static TupleTableSlot *
live_next(ScanState *ss)
{
	LiveScan *ls = (LiveScan *) ss;
	TupleTableSlot *slot = ss->ss_ScanTupleSlot;
	TupleTableSlot *from = ls->tuple_slot;
	int natts = slot->tts_tupleDescriptor->natts;
	uint32 row;

	if (!ls->ready)
		live_prepare(ls);

	/* pos is 0 before the first row and nrows + 1 after the last */
	if (ScanDirectionIsForward(ss->ps.state->es_direction))
	{
		if (ls->pos >= ls->nrows)
		{
			ls->pos = (int64) ls->nrows + 1;
			return ExecClearTuple(slot);
		}
		ls->pos++;
	}
	else
	{
		if (ls->pos <= 1)
		{
			ls->pos = 0;
			return ExecClearTuple(slot);
		}
		ls->pos--;
	}
	row = (uint32) (ls->pos - 1);
	if (ls->listed)
		row = ls->list[row];

	ExecClearTuple(slot);
	image_get(ls->holds->image, row, from);
	slot_getallattrs(from);
	memcpy(slot->tts_values, from->tts_values, natts * sizeof(Datum));
	memcpy(slot->tts_isnull, from->tts_isnull, natts * sizeof(bool));
	ExecStoreVirtualTuple(slot);
	slot->tts_tableOid = RelationGetRelid(ss->ss_currentRelation);
	/* no page of v has this number; xmin and its like are refused by core */
	ItemPointerSet(&slot->tts_tid, MaxBlockNumber - row / 1024,
				   (OffsetNumber) (row % 1024 + 1));
	return slot;
}

static bool
live_recheck(ScanState *ss, TupleTableSlot *slot)
{
	return true; /* every clause is in the node's qual */
}

static TupleTableSlot *
live_exec(CustomScanState *node)
{
	return ExecScan(&node->ss, live_next, live_recheck);
}

static void
live_end(CustomScanState *node)
{
	/* what it holds goes with the executor state's memory */
}

static void
live_rescan(CustomScanState *node)
{
	LiveScan *ls = (LiveScan *) node;

	ls->pos = 0;
	if (ls->keyed)
		ls->ready = false; /* keys may have changed */
	ExecScanReScan(&node->ss);
}

static void
live_explain(CustomScanState *node, List *ancestors, ExplainState *es)
{
	LiveScan *ls = (LiveScan *) node;
	CustomScan *scan = (CustomScan *) node->ss.ps.plan;

	if (ls->keyed)
	{
		Oid view = RelationGetRelid(node->ss.ss_currentRelation);
		List *attnos = list_nth(scan->custom_private, PRIVATE_ATTNOS);
		List *null_attnos = list_nth(scan->custom_private, PRIVATE_NULL_ATTNOS);
		List *context = set_deparse_context_plan(es->deparse_cxt,
												 node->ss.ps.plan, ancestors);
		int n = list_length(attnos) + list_length(null_attnos);
		StringInfoData buf;
		ListCell *attno;
		ListCell *expr;
		const char *sep = "";

		initStringInfo(&buf);
		if (n > 1)
			appendStringInfoChar(&buf, '(');
		forboth(attno, attnos, expr, scan->custom_exprs)
		{
			appendStringInfo(
				&buf, "%s(%s = %s)", sep,
				quote_identifier(get_attname(view, lfirst_int(attno), false)),
				deparse_expression(lfirst(expr), context,
								   es->verbose || list_length(es->rtable) > 1,
								   false));
			sep = " AND ";
		}
		foreach(attno, null_attnos)
		{
			appendStringInfo(
				&buf, "%s(%s IS NULL)", sep,
				quote_identifier(get_attname(view, lfirst_int(attno), false)));
			sep = " AND ";
		}
		if (n > 1)
			appendStringInfoChar(&buf, ')');
		ExplainPropertyText("Live Lookup Key", buf.data, es);
	}
	if (es->analyze)
	{
		ExplainPropertyUInteger("Live Groups Read", NULL, ls->groups_read, es);
		ExplainPropertyUInteger("Live Rows", NULL, ls->rows_made, es);
	}
}

/* ---------------------------------------------------------------------- */
/* planning: lookup keys                                                   */
/* ---------------------------------------------------------------------- */

typedef struct KeyMatch
{
	List *exprs;
	List *attnos;
	List *keys;
	List *null_attnos;
	Bitmapset *pinned; /* 0-based keys */
} KeyMatch;

/* A column of v that shows a key bare, under any relabelling; else -1. */
static int
key_of_node(Node *node, Index relid, const WeirViewPlan *plan,
			AttrNumber *attno)
{
	Var *var;
	int k;

	while (node != NULL && IsA(node, RelabelType))
		node = (Node *) ((RelabelType *) node)->arg;
	var = (Var *) node;
	if (node == NULL || !IsA(node, Var) || var->varno != relid ||
		var->varlevelsup != 0 || var->varattno <= 0)
		return -1;
	k = plan->column_key[var->varattno - 1];
	/* the pane decides a window's key; it is not part of the hash */
	if (k < 0 || plan->keys[k].is_window ||
		!OidIsValid(plan->keys[k].hash_proc))
		return -1;
	*attno = var->varattno;
	return k;
}

/*
 * The value compared with a key, as an expression of the key's type; NULL if
 * equality by this operator does not imply the same hash.
 */
static Node *
key_value(Node *value, const WeirKey *key, Oid opno, Oid collation)
{
	RegProcedure left;
	RegProcedure right;
	Oid type = exprType(value);
	Oid cast;

	if (opno != key->eq_op &&
		(!get_op_hash_functions(opno, &left, &right) || left != key->hash_proc))
		return NULL;
	if (OidIsValid(key->collation) &&
		!collations_agree_on_equality(collation, key->collation))
		return NULL;
	if (type == key->type || getBaseType(type) == getBaseType(key->type) ||
		IsBinaryCoercible(type, key->type))
		return value;

	/* auction = 7: int8 = int4; widen the value */
	if (find_coercion_pathway(key->type, type, COERCION_IMPLICIT, &cast) !=
			COERCION_PATH_FUNC ||
		get_func_nargs(cast) != 1)
		return NULL;
	return (Node *) makeFuncExpr(cast, key->type, list_make1(value), InvalidOid,
								 exprCollation(value), COERCE_IMPLICIT_CAST);
}

static void
match_clause(PlannerInfo *root, RelOptInfo *rel, const WeirViewPlan *plan,
			 Node *clause, KeyMatch *match)
{
	if (IsA(clause, NullTest))
	{
		NullTest *test = (NullTest *) clause;
		AttrNumber attno;
		int k;

		if (test->nulltesttype != IS_NULL || test->argisrow)
			return;
		k = key_of_node((Node *) test->arg, rel->relid, plan, &attno);
		if (k < 0 || bms_is_member(k, match->pinned))
			return;
		match->null_attnos = lappend_int(match->null_attnos, attno);
		match->pinned = bms_add_member(match->pinned, k);
	}
	else if (IsA(clause, OpExpr) && list_length(((OpExpr *) clause)->args) == 2)
	{
		OpExpr *op = (OpExpr *) clause;

		for (int side = 0; side < 2; side++)
		{
			Node *value = list_nth(op->args, 1 - side);
			Oid opno = op->opno;
			AttrNumber attno;
			int k;

			k = key_of_node(list_nth(op->args, side), rel->relid, plan, &attno);
			if (k < 0 || bms_is_member(k, match->pinned))
				continue;
			if (side == 1)
				opno = get_commutator(opno);
			if (!OidIsValid(opno) ||
				bms_is_member(rel->relid, pull_varnos(root, value)) ||
				contain_volatile_functions(value) || contain_subplans(value))
				continue;
			value = key_value(value, &plan->keys[k], opno, op->inputcollid);
			if (value == NULL)
				continue;
			match->exprs = lappend(match->exprs, value);
			match->attnos = lappend_int(match->attnos, attno);
			match->keys = lappend_int(match->keys, k);
			match->pinned = bms_add_member(match->pinned, k);
			return;
		}
	}
}

/*
 * Do these clauses fix every key that is hashed?  Then a live scan can look
 * its groups up.
 */
static bool
match_keys(PlannerInfo *root, RelOptInfo *rel, const WeirViewPlan *plan,
		   List *clauses, KeyMatch *match)
{
	ListCell *lc;

	memset(match, 0, sizeof(*match));
	foreach(lc, clauses)
	{
		Node *clause = lfirst(lc);

		if (IsA(clause, RestrictInfo))
		{
			if (((RestrictInfo *) clause)->pseudoconstant)
				continue;
			clause = (Node *) ((RestrictInfo *) clause)->clause;
		}
		match_clause(root, rel, plan, clause, match);
	}
	if (bms_is_empty(match->pinned))
		return false;
	for (int k = 0; k < plan->nkeys; k++)
	{
		if (!plan->keys[k].is_window && OidIsValid(plan->keys[k].hash_proc) &&
			!bms_is_member(k, match->pinned))
			return false;
	}
	return true;
}

/*
 * May this expression change while the statement runs?  Only values of outer
 * rows do: Vars still to be replaced, and executor parameters other than the
 * results of the statement's own initplans.
 */
static bool
changes_walker(Node *node, PlannerInfo *root)
{
	if (node == NULL)
		return false;
	if (IsA(node, Var) || IsA(node, PlaceHolderVar))
		return true;
	if (IsA(node, Param) && ((Param *) node)->paramkind == PARAM_EXEC)
	{
		PlannerInfo *top = root;
		ListCell *lc;

		while (top->parent_root != NULL)
			top = top->parent_root;
		foreach(lc, top->init_plans)
		{
			SubPlan *initplan = lfirst_node(SubPlan, lc);

			if (list_member_int(initplan->setParam, ((Param *) node)->paramid))
				return false;
		}
		return true;
	}
	return expression_tree_walker(node, changes_walker, (void *) root);
}

static Plan *
plan_live_path(PlannerInfo *root, RelOptInfo *rel, CustomPath *best_path,
			   List *tlist, List *clauses, List *custom_plans)
{
	CustomScan *scan = makeNode(CustomScan);
	Oid view = planner_rt_fetch(rel->relid, root)->relid;
	KeyMatch match;
	bool keyed;
	bool single = false;

	keyed = match_keys(root, rel, view_info(view)->plan, clauses, &match);
	if (keyed)
		single = !changes_walker((Node *) match.exprs, root);
	else
		memset(&match, 0, sizeof(match));

	scan->scan.plan.targetlist = tlist;
	scan->scan.plan.qual = extract_actual_clauses(clauses, false);
	scan->scan.scanrelid = rel->relid;
	scan->flags = best_path->flags;
	scan->methods = &live_scan_methods;
	scan->custom_exprs = match.exprs;
	scan->custom_private =
		list_make4(match.attnos, match.keys, match.null_attnos,
				   list_make2_int(keyed, single));
	return (Plan *) scan;
}

/* Nothing of ours in custom_private of a path mentions a relation. */
static List *
reparameterize_live_path(PlannerInfo *root, List *custom_private,
						 RelOptInfo *child_rel)
{
	return custom_private;
}

/* ---------------------------------------------------------------------- */
/* planning: paths                                                         */
/* ---------------------------------------------------------------------- */

static Path *
make_live_path(PlannerInfo *root, RelOptInfo *rel, ViewInfo *info,
			   Relids required_outer, double groups)
{
	CustomPath *cp = makeNode(CustomPath);
	ParamPathInfo *param;
	List *clauses = rel->baserestrictinfo;
	QualCost qual = rel->baserestrictcost;
	double rows = rel->rows;
	double visited;
	KeyMatch match;
	bool keyed;

	param = get_baserel_parampathinfo(root, rel, required_outer);
	if (param != NULL)
	{
		QualCost param_cost;

		clauses = list_concat_copy(clauses, param->ppi_clauses);
		cost_qual_eval(&param_cost, param->ppi_clauses, root);
		qual.startup += param_cost.startup;
		qual.per_tuple += param_cost.per_tuple;
		rows = param->ppi_rows;
	}
	keyed = match_keys(root, rel, info->plan, clauses, &match);

	cp->path.pathtype = T_CustomScan;
	cp->path.parent = rel;
	cp->path.pathtarget = rel->reltarget;
	cp->path.param_info = param;
	cp->path.parallel_aware = false;
	cp->path.parallel_safe = false;
	cp->path.parallel_workers = 0;
	cp->path.rows = clamp_row_est(rows * groups / Max(rel->tuples, 1.0));
	cp->path.pathkeys = NIL;
	cp->flags =
		CUSTOMPATH_SUPPORT_BACKWARD_SCAN | CUSTOMPATH_SUPPORT_PROJECTION;
	cp->methods = &live_path_methods;

	/*
	 * Finalising a group costs about ten operators.  A parameterized path is
	 * charged for no image: whatever plan is chosen takes one.
	 */
	visited = keyed ? cp->path.rows : groups;
	cp->path.startup_cost = qual.startup + rel->reltarget->cost.startup;
	if (required_outer == NULL)
		cp->path.startup_cost +=
			visited * (cpu_tuple_cost + 10 * cpu_operator_cost);
	cp->path.total_cost = cp->path.startup_cost + 10 * cpu_operator_cost +
						  visited * (cpu_tuple_cost + qual.per_tuple) +
						  cp->path.rows * rel->reltarget->cost.per_tuple;
	return (Path *) cp;
}

static void
add_live_paths(PlannerInfo *root, RelOptInfo *rel, ViewInfo *info)
{
	double groups = live_groups(info->view);
	List *paths = rel->pathlist;
	ListCell *lc;

	rel->pathlist = NIL;
	/* two processes would take two images (head comment) */
	rel->partial_pathlist = NIL;
	rel->consider_parallel = false;

	foreach(lc, paths)
	{
		Path *heap = lfirst(lc);
		Relids outer = PATH_REQ_OUTER(heap);
		Path *live = make_live_path(root, rel, info, outer, groups);

		/* it was estimated for all rows of v */
		heap->rows = clamp_row_est(heap->rows - live->rows);
		add_path(rel,
				 (Path *) create_append_path(root, rel, list_make2(heap, live),
											 NIL, NIL, outer, 0, false, -1));

		/* a MergeAppend must not be parameterized (PostgreSQL 18) */
		if (heap->pathkeys != NIL && outer == NULL)
		{
			/* sorted here: 15 costs a child's sort by the whole relation */
			Path *sorted = (Path *) create_sort_path(root, rel, live,
													 heap->pathkeys, -1.0);

			add_path(rel, (Path *) create_merge_append_path(
							  root, rel, list_make2(heap, sorted),
							  heap->pathkeys, NULL));
		}
	}
}

static void
view_set_rel_pathlist(PlannerInfo *root, RelOptInfo *rel, Index rti,
					  RangeTblEntry *rte)
{
	ViewInfo *info;

	if (prev_pathlist_hook)
		prev_pathlist_hook(root, rel, rti, rte);
	if (rte->relkind != RELKIND_MATVIEW || rte->rtekind != RTE_RELATION)
		return;
	/* TABLESAMPLE is of the final rows */
	if (rte->inh || rte->tablesample != NULL || IS_DUMMY_REL(rel) ||
		!has_live_rows(rte->relid))
		return;

	/* estimating may run user code that plans a read of the same view */
	info = view_info(rte->relid);
	info->pins++;
	PG_TRY();
	{
		add_live_paths(root, rel, info);
	}
	PG_FINALLY();
	{
		unpin_info(info);
	}
	PG_END_TRY();
}

static void
view_get_relation_info(PlannerInfo *root, Oid relid, bool inhparent,
					   RelOptInfo *rel)
{
	RangeTblEntry *rte = planner_rt_fetch(rel->relid, root);
	ListCell *lc;

	if (prev_relation_info_hook)
		prev_relation_info_hook(root, relid, inhparent, rel);
	if (rte->relkind != RELKIND_MATVIEW || rte->rtekind != RTE_RELATION)
		return;
	if (rte->tablesample != NULL || !has_live_rows(relid))
		return;

	/*
	 * The wrap below did not see v: it came out of an SQL function that was
	 * inlined after it.  EvalPlanQual would go wrong.
	 */
	foreach(lc, root->rowMarks)
	{
		PlanRowMark *mark = lfirst_node(PlanRowMark, lc);

		if (mark->rti == rel->relid && mark->markType == ROW_MARK_REFERENCE)
			ereport(
				ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg(
					 "continuous view \"%s\" cannot be read by an inlined SQL function in a statement that locks or changes rows",
					 get_rel_name(relid)),
				 errhint(
					 "Write the function's query in the statement, or declare the function VOLATILE.")));
	}
	rel->tuples += live_groups(relid);
}

/* ---------------------------------------------------------------------- */
/* planning: statements with row marks                                     */
/* ---------------------------------------------------------------------- */

/*
 * Collects the continuous views a query names at any level.
 */
static bool
find_views_walker(Node *node, List **views)
{
	if (node == NULL)
		return false;
	if (IsA(node, Query))
	{
		Query *query = (Query *) node;
		ListCell *lc;

		foreach(lc, query->rtable)
		{
			RangeTblEntry *rte = lfirst_node(RangeTblEntry, lc);

			if (rte->rtekind == RTE_SUBQUERY)
				find_views_walker((Node *) rte->subquery, views);
			else if (rte->rtekind == RTE_RELATION &&
					 rte->relkind == RELKIND_MATVIEW &&
					 weir_catalog_is_continuous_oid(rte->relid))
				*views = list_append_unique_oid(*views, rte->relid);
		}
		foreach(lc, query->cteList)
			find_views_walker(lfirst_node(CommonTableExpr, lc)->ctequery,
							  views);
		/* only sublinks can hide more queries: most statements end here */
		if (query->hasSubLinks)
			query_tree_walker(query, find_views_walker, (void *) views,
							  QTW_IGNORE_RT_SUBQUERIES |
								  QTW_IGNORE_CTE_SUBQUERIES);
		return false;
	}
	return expression_tree_walker(node, find_views_walker, (void *) views);
}

/*
 * Turn v in a query's range table into (SELECT all columns FROM v), which is
 * planned on its own and whose rows are marked by copy.
 */
static void
wrap_view(Query *query, RangeTblEntry *rte)
{
	Query *sub = makeNode(Query);
	RangeTblEntry *inner = copyObject(rte);
	RangeTblRef *ref = makeNode(RangeTblRef);
	Relation rel = table_open(rte->relid, NoLock);
	TupleDesc desc = RelationGetDescr(rel);

	sub->commandType = CMD_SELECT;
	sub->querySource = QSRC_ORIGINAL;
	sub->canSetTag = true;
	inner->inFromCl = true;
	inner->lateral = false;
	sub->rtable = list_make1(inner);
	ref->rtindex = 1;
	sub->jointree = makeFromExpr(list_make1(ref), NULL);
	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute att = TupleDescAttr(desc, i);
		Var *var = makeVar(1, i + 1, att->atttypid, att->atttypmod,
						   att->attcollation, 0);

		sub->targetList =
			lappend(sub->targetList,
					makeTargetEntry((Expr *) var, i + 1,
									pstrdup(NameStr(att->attname)), false));
	}
	table_close(rel, NoLock);

	weir_move_rte_permissions(query, rte, sub, inner);
	rte->rtekind = RTE_SUBQUERY;
	rte->subquery = sub;
	rte->security_barrier = true; /* not pulled up */
	rte->inh = false;
	/* relid stays, as in an expanded view: a whole-row Var needs it */
}

static void
wrap_level(Query *query)
{
	List *vars = NIL;
	ListCell *lc;
	int rti = 0;

	foreach(lc, query->rtable)
	{
		RangeTblEntry *rte = lfirst_node(RangeTblEntry, lc);
		ListCell *lv;

		rti++;
		if (rte->rtekind != RTE_RELATION || rte->relkind != RELKIND_MATVIEW ||
			rti == query->resultRelation || rte->tablesample != NULL ||
			get_parse_rowmark(query, rti) != NULL || !has_live_rows(rte->relid))
			continue;
		if (vars == NIL)
			vars = pull_vars_of_level((Node *) query, 0);
		foreach(lv, vars)
		{
			Var *var = lfirst(lv);

			if (IsA(var, Var) && var->varno == rti && var->varattno < 0)
				ereport(
					ERROR,
					(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					 errmsg(
						 "system columns of continuous view \"%s\" cannot be used in a statement that locks or changes rows",
						 get_rel_name(rte->relid)),
					 errhint("Read them in a statement of their own.")));
		}
		wrap_view(query, rte);
	}
}

typedef struct WrapContext
{
	bool marked; /* this level may be pulled up into one that
								 * has row marks */
} WrapContext;

static bool
wrap_walker(Node *node, WrapContext *context)
{
	if (node == NULL)
		return false;
	if (IsA(node, Query))
	{
		Query *query = (Query *) node;
		WrapContext inner;

		inner.marked = context->marked || query->rowMarks != NIL ||
					   query->commandType == CMD_UPDATE ||
					   query->commandType == CMD_DELETE ||
					   query->commandType == CMD_MERGE;
		/* first below: what is wrapped here must not be entered */
		query_tree_walker(query, wrap_walker, (void *) &inner, 0);
		if (inner.marked)
			wrap_level(query);
		return false;
	}
	return expression_tree_walker(node, wrap_walker, (void *) context);
}

static PlannedStmt *
view_planner(Query *parse, const char *query_string, int cursor_options,
			 ParamListInfo params)
{
	List *views = NIL;

	find_views_walker((Node *) parse, &views);
	if (views != NIL)
	{
		WrapContext context = {false};
		ListCell *lc;

		wrap_walker((Node *) parse, &context);

		/*
		 * Finalising runs the view's functions in this statement; the planner
		 * cannot see them.
		 */
		foreach(lc, views)
		{
			if (has_live_rows(lfirst_oid(lc)) &&
				view_info(lfirst_oid(lc))->hazard == PROPARALLEL_UNSAFE)
				cursor_options &= ~CURSOR_OPT_PARALLEL_OK;
		}
	}
	if (prev_planner_hook)
		return prev_planner_hook(parse, query_string, cursor_options, params);
	return standard_planner(parse, query_string, cursor_options, params);
}

/* ---------------------------------------------------------------------- */
/* weir.is_final                                                           */
/* ---------------------------------------------------------------------- */

/*
 * What is_final keeps from call to call, for a snapshot.  Not by its address:
 * PL/pgSQL, for one, keeps the function's memory through many statements, each
 * with a snapshot of its own, often in the same place.  Of two snapshots with
 * the same xmax, the later has no transaction in progress that the earlier has
 * not, so if the numbers agree, too, both see the same.
 */
typedef struct FinalCache
{
	Oid view;
	Oid user; /* whose rights were checked */
	TransactionId xmin;
	TransactionId xmax;
	uint32 xcnt;
	int32 subxcnt;
	bool suboverflowed;
	CommandId curcid;
	WeirWindow window;
	int64 lateness;
	int64 closed_before;
	TimestampTz stored_watermark; /* of the position row; or WEIR_NO_TIME */
} FinalCache;

static bool
cache_is_of(const FinalCache *cache, Oid view, Snapshot snapshot)
{
	return cache->view == view && cache->user == GetUserId() &&
		   cache->xmin == snapshot->xmin && cache->xmax == snapshot->xmax &&
		   cache->xcnt == snapshot->xcnt &&
		   cache->subxcnt == snapshot->subxcnt &&
		   cache->suboverflowed == snapshot->suboverflowed &&
		   cache->curcid == snapshot->curcid;
}

/*
 * W of the image this statement reads, the lowest if it has several, and the
 * lateness by which it judges, left alone if that is the checkpoint's.
 */
static bool
image_watermark(Oid view, Snapshot snapshot, TimestampTz *watermark,
				int64 *lateness)
{
	dlist_iter iter;
	int64 stored = *lateness;
	bool found = false;

	dlist_foreach(iter, &images)
	{
		Image *image = dlist_container(Image, link, iter.cur);

		if (image->view != view || image->snapshot != snapshot ||
			image->curcid != snapshot->curcid)
			continue;
		if (found && image->watermark >= *watermark)
			continue;
		*watermark = image->watermark;
		*lateness = image->lateness >= 0 ? image->lateness : stored;
		found = true;
	}
	return found;
}

static void
fill_final_cache(FinalCache *cache, Oid view, Snapshot snapshot)
{
	Relation rel = try_relation_open(view, AccessShareLock);
	AclResult acl;
	ViewInfo *info;
	WeirPositionRow row;
	ItemPointerData tid;

	if (rel == NULL)
		ereport(ERROR, (errcode(ERRCODE_UNDEFINED_TABLE),
						errmsg("relation with OID %u does not exist", view)));
	if (!weir_catalog_is_continuous(rel))
		ereport(ERROR, (errcode(ERRCODE_WRONG_OBJECT_TYPE),
						errmsg("\"%s\" is not a continuous view",
							   RelationGetRelationName(rel))));
	/* the lock may be one that we have: it would not tell of a REVOKE */
	AcceptInvalidationMessages();
	acl = pg_class_aclcheck(view, GetUserId(), ACL_SELECT);
	if (acl != ACLCHECK_OK)
		aclcheck_error(acl, OBJECT_MATVIEW, RelationGetRelationName(rel));
	info = view_info(view);
	if (info->plan->window.kind == WEIR_WINDOW_NONE ||
		info->plan->window.kind == WEIR_WINDOW_COUNT)
		ereport(ERROR, (errcode(ERRCODE_WRONG_OBJECT_TYPE),
						errmsg("continuous view \"%s\" has no time window",
							   RelationGetRelationName(rel)),
						info->plan->window.kind == WEIR_WINDOW_COUNT
							? errdetail("A row is final when its window_end is "
										"not null.")
							: errdetail("Its rows can always change.")));
	cache->window = info->plan->window;
	cache->lateness = info->options->allowed_lateness;
	cache->closed_before = PG_INT64_MIN;
	cache->stored_watermark = WEIR_NO_TIME;
	if (weir_catalog_position_get(view, -1, snapshot, &row, &tid))
	{
		weir_catalog_position_check(&row);
		cache->lateness = row.allowed_lateness;
		cache->closed_before = row.closed_before;
		cache->stored_watermark = row.watermark;
	}
	cache->view = view;
	cache->user = GetUserId();
	cache->xmin = snapshot->xmin;
	cache->xmax = snapshot->xmax;
	cache->xcnt = snapshot->xcnt;
	cache->subxcnt = snapshot->subxcnt;
	cache->suboverflowed = snapshot->suboverflowed;
	cache->curcid = snapshot->curcid;
	relation_close(rel, AccessShareLock);
}

/*
 * weir.is_final(view, window_end), for timestamptz and timestamp alike.
 *
 * A live row of this statement must be judged by the watermark of the image it
 * came from: a later one could call a row final that has changed since.  Before
 * the image is taken any watermark is not later than the image's.
 */
Datum
weir_view_is_final(PG_FUNCTION_ARGS)
{
	Oid view = PG_GETARG_OID(0);
	int64 end = PG_GETARG_INT64(1);
	Snapshot snapshot = GetActiveSnapshot();
	FinalCache *cache = fcinfo->flinfo->fn_extra;
	TimestampTz watermark = WEIR_NO_TIME;
	int64 lateness;

	if (cache == NULL)
		cache = fcinfo->flinfo->fn_extra =
			MemoryContextAllocZero(fcinfo->flinfo->fn_mcxt, sizeof(FinalCache));
	if (!cache_is_of(cache, view, snapshot))
		fill_final_cache(cache, view, snapshot);

	if (end <= cache->closed_before)
		PG_RETURN_BOOL(true);
	lateness = cache->lateness;
	if (!image_watermark(view, snapshot, &watermark, &lateness))
	{
		WeirViewShared *v = NULL;

		watermark = cache->stored_watermark;
		if (weir_shared != NULL)
			v = weir_shmem_view(view);
		if (v != NULL)
		{
			LWLockAcquire(&v->publish_lock, LW_SHARED);
			if (v->in_use && v->view == view && v->answering && v->state_valid)
			{
				watermark = v->watermark;
				lateness = (int64) pg_atomic_read_u64(&v->allowed_lateness);
			}
			LWLockRelease(&v->publish_lock);
		}
	}
	PG_RETURN_BOOL(
		end <= weir_window_final_through(&cache->window, lateness, watermark));
}

/* ---------------------------------------------------------------------- */

static void
view_xact_callback(XactEvent event, void *arg)
{
	if (event == XACT_EVENT_ABORT || event == XACT_EVENT_PARALLEL_ABORT)
		weir_state_release_cuts();
}

/* A cut is open only while groups are copied, never across user code. */
static void
view_subxact_callback(SubXactEvent event, SubTransactionId id,
					  SubTransactionId parent, void *arg)
{
	if (event == SUBXACT_EVENT_ABORT_SUB)
		weir_state_release_cuts();
}

void
weir_view_init(void)
{
	prev_planner_hook = planner_hook;
	planner_hook = view_planner;
	prev_pathlist_hook = set_rel_pathlist_hook;
	set_rel_pathlist_hook = view_set_rel_pathlist;
	prev_relation_info_hook = get_relation_info_hook;
	get_relation_info_hook = view_get_relation_info;
	RegisterCustomScanMethods(&live_scan_methods);
	RegisterXactCallback(view_xact_callback, NULL);
	RegisterSubXactCallback(view_subxact_callback, NULL);
	CacheRegisterRelcacheCallback(relcache_changed, (Datum) 0);
	CacheRegisterSyscacheCallback(PROCOID, syscache_changed, (Datum) 0);
	CacheRegisterSyscacheCallback(OPEROID, syscache_changed, (Datum) 0);
	CacheRegisterSyscacheCallback(TYPEOID, syscache_changed, (Datum) 0);
	CacheRegisterSyscacheCallback(AUTHOID, syscache_changed, (Datum) 0);
	CacheRegisterSyscacheCallback(AUTHMEMROLEMEM, syscache_changed, (Datum) 0);
}
