/*-------------------------------------------------------------------------
 *
 * flow.c
 *	  One running continuous query in a worker: run the input plan over a
 *	  slice, fold its rows into the groups they touch, publish; write final
 *	  windows; swap a rebuild in.
 *
 * Relies on: one flow a (view, generation) in the whole server (claim below);
 * the worker sets the slice, holds the stream's lock, has an active snapshot
 * and wraps each call that runs user code into a subtransaction.
 *
 * Guarantees: shared state changes only in weir_flow_publish, there by one
 * call that neither allocates nor raises; so whatever user code raises, at any
 * row, a batch is applied whole or not at all.
 *
 * A batch:  begin -> slice* -> publish
 *					   \-> discard (after any error)
 *
 * The cache: open addressing, keyed by (pane, hash, key).  A group that a batch
 * touches first is loaded from the shared state (or started), then advanced row
 * by row in private memory ("weir batch", reset by the next begin), and saved
 * as bytes at publish.  Pointers into the shared state stay good meanwhile,
 * since nobody but this flow publishes to it.  With many groups the cost is
 * waiting for memory, so rows are gathered ROW_BUFFER at a time and bucket,
 * cached group and shared group are each prefetched for all of them; a group
 * lies in one piece, its key beside it; groups are taken from an arena, without
 * an allocator's header or rounding, and published in the order they came.
 *
 * The cache is bounded by the batch, which the worker ends after some 64 k
 * rows; but a transaction is not cut.  One that touches so many groups that
 * they could not be published raises, as they would then, and goes through in
 * parts (weir_flow_consume_in_parts): each is published, yet hidden from readers,
 * and windows that nothing more of the transaction can reach go to the heap,
 * all in the transaction of one checkpoint.  It shows everything just before it
 * commits; that order, as readers who do not see its rows by their snapshot find
 * them by its xid, while there is none to hide rows they see already.
 *
 * The plan lives in its own context ("weir plan") and is made again at the
 * next begin when anything it depends on has changed: the view, its stream,
 * plain views, functions, types, roles' rights.  Rights are checked each time.
 *
 * Ownership: weir_shmem_view_claim.  A worker leaves workers[] after its
 * transaction has been aborted; from then on its views can be claimed.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/heapam.h"
#include "access/htup_details.h"
#include "access/multixact.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/indexing.h"
#include "catalog/pg_class.h"
#include "commands/cluster.h"
#include "common/int.h"
#include "executor/executor.h"
#include "executor/tstoreReceiver.h"
#include "lib/ilist.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "pgstat.h"
#include "storage/lmgr.h"
#include "storage/procarray.h"
#include "tcop/dest.h"
#include "utils/datum.h"
#include "utils/fmgroids.h"
#include "utils/guc.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"

#include "aggregate.h"
#include "checkpoint.h"
#include "compat.h"
#include "debug.h"
#include "expand.h"
#include "flow.h"
#include "guc.h"
#include "late.h"
#include "secure.h"
#include "spans.h"
#include "timers.h"

#define ROW_BUFFER	64
#define MIN_BUCKETS 1024
#define MANY_SPANS	256 /* of a key: each batch copies them */

/* A group in the cache; its key and the live aggregates follow, MAXALIGNed. */
typedef struct CachedGroup
{
	int64 pane;
	dsa_pointer ref; /* in shared state; invalid: new */
	uint32 hash;
	uint32 keylen;
} CachedGroup;

#define group_key(g)  ((char *) ((g) + 1))
#define group_live(g) ((void *) (group_key(g) + MAXALIGN((Size) (g)->keylen)))

/* Memory of the arena, and how many blocks it keeps from batch to batch. */
#define ARENA_BLOCK		 (256 * 1024)
#define ARENA_KEEPS		 64
#define KEPT_GROUPS		 65536 /* arrays for more go when they are not needed */
#define WEIGH_FIRST		 8192  /* rows */
#define ARENA_MAX_BLOCKS 65536

typedef struct Bucket
{
	CachedGroup *group; /* NULL: free */
	uint32 hash;
} Bucket;

/* An event that on_error = skip gave up on. */
typedef struct SkippedEvent
{
	char *json;
	char *sqlstate;
	char *message;
} SkippedEvent;

typedef struct WeirFlowPrivate
{
	dlist_node node; /* in open_flows */
	WeirFlow *flow;
	bool stale; /* plan again at the next begin */

	/* made with the plan, in plan_cxt */
	MemoryContext plan_cxt;
	EState *estate;
	WeirAggs *aggs;
	WeirKeys *keys;
	WeirSpans *spans;	  /* NULL: windows are panes */
	List *type_relations; /* OIDs: of composite types in keys, states */
	Size live_size;
	ExprState *window_quals; /* of plan->window_quals, or NULL */
	ExprContext *window_econtext;
	int *byref; /* 0-based input columns by reference */
	int nbyref;
	int16 *typlen; /* of those */

	/* rows gathered */
	MemoryContext row_cxt; /* their by-reference values; garbage of keys */
	TupleTableSlot *rows[ROW_BUFFER];
	int64 panes[ROW_BUFFER];
	uint32 hashes[ROW_BUFFER];
	uint64 ordinals[ROW_BUFFER]; /* along the log */
	int64 times[ROW_BUFFER];	 /* spans: event time, */
	int64 befores[ROW_BUFFER];	 /* and up to which end sessions are final */
	int nrows;

	/* the cache */
	MemoryContext batch_cxt;
	uint32 nbuckets; /* power of two */
	uint32 ngroups;

	/* memory that stays, as getting it anew costs a page fault per page */
	Bucket *buckets;
	uint32 bucket_space;
	CachedGroup **groups; /* in the order they came */
	WeirPut *puts;
	uint32 group_space;
	char **blocks; /* of the arena */
	uint32 nblocks;
	uint32 at_block; /* the next one */
	char *arena;	 /* what is left of the last one */
	Size arena_left;
	uint64 nfolded;	 /* rows, of the batch; memory is looked at .. */
	uint64 weigh_at; /* .. when they are so many */
	bool started;	 /* begin was called */

	/* of the batch */
	uint64 next_ordinal; /* of the next row received */
	uint64 late;
	const int *at_chunk;
	const TimestampTz *watermarks;
	uint64 late_partial;
	WeirSpanLimits limits;
	int64 memo_key; /* window key -> ends of its first, last window */
	int64 memo_end;
	int64 memo_last;
	bool memo_valid;
	bool chosen_valid; /* what choose_windows found for these */
	bool chosen;
	int64 chosen_end; /* memo_end and first then */
	int64 chosen_first;
	int64 chosen_missed;

	/* durable side */
	WeirCheckpoint checkpoint;
	int64 *closing; /* panes of the windows being closed */
	int nclosing;
	int64 oldest_end; /* no final row is of a window that ended before */

	/* of spans: keys with something to close or to forget, by hash; and those
	 * of which it is being done */
	WeirTimers *timers;
	uint32 *taken; /* the first nsorted each once, in order */
	uint64 ntaken;
	uint64 nsorted; /* of them; the others have been taken since */
	uint64 taken_size;
	bool unclosed;	/* among them may be some to close */
	int most_spans; /* of a key, since the last checkpoint */

	/* of a transaction in parts */
	bool in_parts;
	int64 parts_before; /* windows with end <= this are final now */
	void (*fold)(void *arg);
	void *fold_arg;
	WeirPosition parts_position; /* after the transaction */
	TimestampTz parts_watermark;

	char *layout;
	WeirLate *late_events; /* for the late table */
	List *errors;		   /* SkippedEvent: published, not yet written */
	List *batch_errors;	   /* of the batch */
	bool dirty;
	bool adopts; /* the next checkpoint puts a new lateness into force */
} WeirFlowPrivate;

typedef struct FoldReceiver
{
	DestReceiver pub;
	WeirFlow *flow;
} FoldReceiver;

static dlist_head open_flows = DLIST_STATIC_INIT(open_flows);

/* A swap under way in the current transaction. */
static struct
{
	WeirViewShared *from; /* may be NULL */
	WeirViewShared *to;	  /* NULL: no swap */
} swap_at_commit;


/* ---------- the plan ---------- */

static void
relation_changed(Datum arg, Oid relid)
{
	dlist_iter iter;

	dlist_foreach(iter, &open_flows)
	{
		WeirFlowPrivate *p = dlist_container(WeirFlowPrivate, node, iter.cur);
		WeirFlow *flow = p->flow;

		if (relid == InvalidOid || relid == flow->view ||
			(flow->plan && relid == flow->plan->stream) ||
			list_member_oid(p->type_relations, relid) ||
			(flow->input_plan &&
			 list_member_oid(flow->input_plan->relationOids, relid)))
			p->stale = true;
	}
}

static void
syscache_changed(Datum arg, int cacheid, uint32 hashvalue)
{
	dlist_iter iter;

	dlist_foreach(iter, &open_flows)
		dlist_container(WeirFlowPrivate, node, iter.cur)->stale = true;
}

/*
 * Before the locks of the swap's transaction go, so that whoever gets v next
 * finds the generation that belongs to its new heap.
 */
static void
end_swap(XactEvent event, void *arg)
{
	if (swap_at_commit.to == NULL)
		return;
	if (event == XACT_EVENT_COMMIT)
	{
		weir_debug_point_critical("swap-ends");
		LWLockAcquire(&weir_shared->directory_lock, LW_EXCLUSIVE);
		if (swap_at_commit.from)
			swap_at_commit.from->answering = false;
		swap_at_commit.to->answering = true;
		LWLockRelease(&weir_shared->directory_lock);
	}
	if (event == XACT_EVENT_COMMIT || event == XACT_EVENT_ABORT)
		swap_at_commit.from = swap_at_commit.to = NULL;
}

static void init_cache(WeirFlowPrivate *p);

static void
register_callbacks(void)
{
	static bool done = false;

	if (done)
		return;
	CacheRegisterRelcacheCallback(relation_changed, (Datum) 0);
	CacheRegisterSyscacheCallback(PROCOID, syscache_changed, (Datum) 0);
	CacheRegisterSyscacheCallback(TYPEOID, syscache_changed, (Datum) 0);
	CacheRegisterSyscacheCallback(OPEROID, syscache_changed, (Datum) 0);
	CacheRegisterSyscacheCallback(AUTHOID, syscache_changed, (Datum) 0);
	CacheRegisterSyscacheCallback(AUTHMEMROLEMEM, syscache_changed, (Datum) 0);
	RegisterXactCallback(end_swap, NULL);
	done = true;
}

/*
 * Lock the view against DROP and ALTER, without waiting, and find its owner.
 */
static Oid
lock_view(Oid view, LOCKMODE mode)
{
	HeapTuple tuple;
	Oid owner;

	if (!ConditionalLockRelationOid(view, mode))
		ereport(ERROR, (errcode(ERRCODE_LOCK_NOT_AVAILABLE),
						errmsg("could not lock continuous view \"%s\"",
							   get_rel_name(view))));
	tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(view));
	if (!HeapTupleIsValid(tuple))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_TABLE),
				 errmsg("continuous view with OID %u does not exist any more",
						view)));
	owner = ((Form_pg_class) GETSTRUCT(tuple))->relowner;
	ReleaseSysCache(tuple);
	return owner;
}

/* What WHERE says of windows that overlap; in the context and as the user at hand. */
static void
prepare_window_quals(const WeirViewPlan *plan, EState *estate,
					 ExprState **quals, ExprContext **econtext)
{
	*quals = NULL;
	*econtext = NULL;
	if (plan->window_quals == NULL || !weir_window_overlaps(&plan->window))
		return;
	*quals = ExecInitQual(
		make_ands_implicit((Expr *) copyObject(plan->window_quals)), NULL);
	*econtext = CreateExprContext(estate);
	(*econtext)->ecxt_scantuple =
		MakeSingleTupleTableSlot(plan->final_desc, &TTSOpsVirtual);
}

static void
find_byref_columns(WeirFlowPrivate *p, TupleDesc desc)
{
	p->byref = palloc(desc->natts * sizeof(int));
	p->typlen = palloc(desc->natts * sizeof(int16));
	p->nbyref = 0;
	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute att = TupleDescAttr(desc, i);

		if (att->attbyval)
			continue;
		p->byref[p->nbyref] = i;
		p->typlen[p->nbyref++] = att->attlen;
	}
}

static void
layout_has_changed(WeirFlow *flow)
{
	ereport(ERROR, (errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					errmsg("an aggregate, a window or the type of a key of "
						   "continuous view \"%s\" has changed",
						   get_rel_name(flow->view)),
					errhint("Rebuild it from its stream with REFRESH "
							"MATERIALIZED VIEW.")));
}

/* A plain view in FROM may have been replaced: the log read is that of before. */
static void
check_stream(WeirFlow *flow, const WeirViewPlan *plan)
{
	WeirWish wish;

	if (!weir_catalog_wish_get(flow->view, &wish) ||
		wish.stream == plan->stream)
		return;
	ereport(
		ERROR,
		(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
		 errmsg("continuous view \"%s\" now reads another stream",
				get_rel_name(flow->view)),
		 errdetail("It was created over \"%s\".", get_rel_name(wish.stream)),
		 errhint("Let the plain view in its FROM read that again, or create "
				 "another continuous view.")));
}

/*
 * Analyse and plan as the owner; replaces the former plan only when all went
 * well.  Everything that hangs on the plan is made anew with it.
 */
static void
make_plan(WeirFlow *flow)
{
	WeirFlowPrivate *p = flow->priv;
	MemoryContext cxt;
	MemoryContext old;
	WeirSecure secure;
	Oid owner;
	WeirViewOptions *options;
	WeirViewPlan *plan;
	PlannedStmt *input_plan;
	WeirAggs *aggs;
	WeirKeys *keys;
	WeirSpans *spans = NULL;
	EState *estate;
	ExprState *window_quals;
	ExprContext *window_econtext;
	char *layout;
	List *type_relations = NIL;
	TupleDesc desc;

	p->stale = false; /* a change from now on sets it again */
	owner = lock_view(flow->view, AccessShareLock);

	/* goes with the transaction unless it becomes the flow's */
	cxt = AllocSetContextCreate(CurrentMemoryContext, "weir plan",
								ALLOCSET_DEFAULT_SIZES);
	old = MemoryContextSwitchTo(cxt);
	options = weir_catalog_view_options(flow->view);
	weir_secure_enter(&secure, owner, options->settings);
	plan = weir_plan_query(weir_plan_view_query(flow->view), flow->view, owner,
						   false);
	plan->settings = options->settings;
	weir_plan_check_rights(plan);
	check_stream(flow, plan);
	input_plan = weir_plan_input(plan);
	input_plan->queryId = 0;
	estate = CreateExecutorState();
	aggs = weir_aggs_create(plan->aggs, estate, plan->merged);
	keys = weir_keys_create(plan);
	prepare_window_quals(plan, estate, &window_quals, &window_econtext);
	if (weir_window_is_span(&plan->window))
		spans = weir_spans_create(plan, aggs);
	layout = weir_groups_layout(aggs, keys, &type_relations);
	desc = ExecTypeFromTL(input_plan->planTree->targetlist);
	weir_secure_leave(&secure);

	weir_late_plan(p->late_events, options);
	if (desc->natts != plan->ninputs)
		elog(ERROR, "unexpected number of columns in the input query: %d",
			 desc->natts);
	if (p->layout && strcmp(layout, p->layout) != 0)
		layout_has_changed(flow);

	for (int i = 0; i < ROW_BUFFER; i++)
	{
		/* stays full: only its arrays are ever written */
		p->rows[i] = MakeSingleTupleTableSlot(desc, &TTSOpsVirtual);
		ExecStoreAllNullTuple(p->rows[i]);
	}
	find_byref_columns(p, desc);
	MemoryContextSwitchTo(old);

	MemoryContextSetParent(cxt, flow->cxt);
	p->type_relations = type_relations;
	if (p->plan_cxt)
		MemoryContextDelete(p->plan_cxt);
	if (p->layout == NULL)
		p->layout = MemoryContextStrdup(flow->cxt, layout);
	p->plan_cxt = cxt;
	p->estate = estate;
	p->aggs = aggs;
	p->keys = keys;
	p->spans = spans;
	p->live_size =
		spans ? weir_spans_live_size(spans) : weir_aggs_live_size(aggs);
	p->memo_valid = false;
	p->window_quals = window_quals;
	p->window_econtext = window_econtext;
	p->chosen_valid = false;
	flow->options = options;
	flow->plan = plan;
	flow->input_plan = input_plan;
}


/* ---------- open and close ---------- */

static void
claim(WeirFlow *flow)
{
	int pid = weir_shmem_view_claim(flow->v, flow->view, flow->generation);

	if (pid > 0)
		ereport(ERROR,
				(errcode(ERRCODE_LOCK_NOT_AVAILABLE),
				 errmsg("continuous view \"%s\" is still run by process %d",
						get_rel_name(flow->view), pid)));
	if (pid < 0)
		ereport(ERROR, (errcode(ERRCODE_LOCK_NOT_AVAILABLE),
						errmsg("continuous view \"%s\" is being cleaned up",
							   get_rel_name(flow->view))));
}

/*
 * WeirLoadGroup.  A key that was forgotten is in the checkpoint until that is
 * written as a whole; meanwhile it may have come again, in other bytes.
 */
static bool
load_group(WeirGroup *g, void *arg)
{
	WeirFlow *flow = arg;
	WeirFlowPrivate *p = flow->priv;
	int nkeys = flow->plan->nkeys;
	Datum *values;
	bool *nulls;

	if (p->spans &&
		weir_spans_are_over(p->spans, g->state, g->statelen, &p->limits))
		return false;
	values = palloc((nkeys + 1) * sizeof(Datum));
	nulls = palloc((nkeys + 1) * sizeof(bool));
	weir_keys_deform(p->keys, g->key, values, nulls);
	g->hash = weir_keys_hash(p->keys, values, nulls);
	pfree(values);
	pfree(nulls);
	return true;
}

/* Put the group of no row, of these keys, unless it is there. */
static void
put_empty_group(WeirFlow *flow, const Datum *values, const bool *nulls)
{
	WeirFlowPrivate *p = flow->priv;
	WeirPut put = {0};
	dsa_pointer iter = 0;
	dsa_pointer ref;
	WeirGroup g;

	put.group.pane = WEIR_PANE_NONE;
	put.group.hash = weir_keys_hash(p->keys, values, nulls);
	while (weir_state_find(flow->state, put.group.pane, put.group.hash, &iter,
						   &ref, &g))
		if (weir_keys_equal_bytes(p->keys, values, nulls, g.key))
			return;
	put.group.key = weir_keys_form(p->keys, values, nulls, &put.group.keylen);
	put.group.state = weir_aggs_empty(p->aggs, &put.group.statelen);
	put.ref = InvalidDsaPointer;
	weir_state_reserve(flow->state, &put, 1);
	weir_state_publish(flow->state, &put, 1, flow->position, flow->watermark);
}

/* A view without GROUP BY has its row from the beginning, and so has the empty
 * set of GROUPING SETS. */
static void
put_empty_groups(WeirFlow *flow)
{
	const WeirViewPlan *plan = flow->plan;
	Datum *values = palloc0((plan->nkeys + 1) * sizeof(Datum));
	bool *nulls = palloc((plan->nkeys + 1) * sizeof(bool));

	memset(nulls, true, (plan->nkeys + 1) * sizeof(bool));
	if (!plan->grouped)
		put_empty_group(flow, values, nulls);
	for (int set = 0; set < plan->nsets; set++)
	{
		if (!bms_is_empty(plan->set_keys[set]))
			continue;
		values[plan->nkeys - 1] = Int32GetDatum(set);
		nulls[plan->nkeys - 1] = false;
		put_empty_group(flow, values, nulls);
	}
}

static bool closable(void *arg, int64 final_before);
static int64 close_windows(void *arg, int64 final_before, TransactionId xid);
static void write_rows(void *arg);

static void
load_state(WeirFlow *flow, bool found, Snapshot snapshot)
{
	WeirFlowPrivate *p = flow->priv;
	const WeirPositionRow *row = &p->checkpoint.row;
	WeirViewShared *v = flow->v;
	WeirSecure secure;

	flow->position = row->position;
	flow->watermark = row->watermark;
	p->limits.swept = row->closed_before;
	p->limits.before = weir_flow_final_before(flow);
	weir_secure_enter(&secure, flow->plan->owner, flow->options->settings);
	if (found)
		weir_checkpoint_load(row, flow->state, p->layout, snapshot, load_group,
							 flow);
	else
		weir_state_publish(flow->state, NULL, 0, flow->position,
						   flow->watermark);
	put_empty_groups(flow);
	weir_secure_leave(&secure);

	pg_atomic_write_u64(&v->events_in, row->events_in);
	pg_atomic_write_u64(&v->late, row->late);
	pg_atomic_write_u64(&v->late_partial, row->late_partial);
	pg_atomic_write_u64(&v->final_rows, row->final_rows);
	pg_atomic_write_u64(&v->checkpoint_us, row->checkpoint_us);
	pg_atomic_write_u64(&v->checkpoint_bytes, row->checkpoint_bytes);
	v->checkpoint_at = row->checkpoint_at;
	weir_state_loaded(flow->state);
}

/* WeirGroupCallback */
static void
set_timer(const WeirGroup *g, void *arg)
{
	WeirFlow *flow = arg;
	WeirFlowPrivate *p = flow->priv;

	weir_timers_set(p->timers, g->hash,
					weir_spans_due(p->spans, g->state, g->statelen,
								   p->checkpoint.row.closed_before));
}

/* Whose state it is, and what he may have of it. */
static void
note_owner(WeirFlow *flow)
{
	Oid owner = flow->plan->owner;
	int limit = weir_catalog_role_limit("weir.max_role_memory", GUC_UNIT_KB,
										weir_max_role_memory, owner);

	pg_atomic_write_u32(&flow->v->owner, owner);
	pg_atomic_write_u64(&flow->v->role_memory,
						limit < 0 ? 0 : Max((uint64) limit * 1024, 1));
}

/*
 * What a rebuild leaves as it is, by its wish.  There may be a later one by now:
 * that overtakes it.
 */
static int64
wished_kept_through(const WeirFlow *flow)
{
	WeirWish wish;

	if (!weir_catalog_wish_get(flow->view, &wish) ||
		wish.generation != flow->generation)
		ereport(ERROR,
				(errcode(ERRCODE_LOCK_NOT_AVAILABLE),
				 errmsg("rebuild of continuous view \"%s\" was overtaken by "
						"another one",
						get_rel_name(flow->view))));
	return wish.kept_through;
}

/* snapshot: of a copy; NULL: the flow is the view's. */
static void
open_flow(WeirFlow *flow, bool answering, Snapshot snapshot)
{
	WeirFlowPrivate *p = flow->priv;
	WeirPositionRow *row = &p->checkpoint.row;
	bool found;
	bool fresh;

	make_plan(flow);
	if (snapshot != NULL)
		flow->v = weir_shmem_view_private(flow->view, flow->plan->stream,
										  flow->generation);
	else
	{
		flow->v = weir_shmem_view_make(flow->view, flow->plan->stream,
									   flow->generation, answering);
		if (flow->v == NULL)
			ereport(ERROR, (errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
							errmsg("too many continuous views on this server"),
							errdetail("At most %d can run at a time.",
									  WEIR_MAX_VIEWS)));
		claim(flow);
	}
	note_owner(flow);
	dlist_push_tail(&open_flows, &p->node);

	/* an own transaction may have written the row: take the latest */
	found = weir_catalog_position_get(flow->view, flow->generation, snapshot,
									  row, &p->checkpoint.tid);
	if (!found)
	{
		MemSet(row, 0, sizeof(*row));
		row->view = flow->view;
		row->generation = flow->generation;
		row->answering = answering;
		row->watermark = WEIR_NO_TIME;
		row->closed_before = PG_INT64_MIN;
		row->allowed_lateness = flow->options->allowed_lateness;
		row->failed_resumes = -1;
		row->checkpoint_at = WEIR_NO_TIME;
		ItemPointerSetInvalid(&p->checkpoint.tid);
	}
	weir_catalog_position_check(row);
	flow->kept_through =
		row->answering ? PG_INT64_MIN : wished_kept_through(flow);
	row->closed_before = Max(row->closed_before, flow->kept_through);
	flow->closed_before = row->closed_before;
	flow->lateness = row->allowed_lateness;
	pg_atomic_write_u64(&flow->v->allowed_lateness, flow->lateness);
	if (flow->v->owes_rows)
	{
		/* a predecessor took with it what belongs to his position */
		weir_state_discard(flow->v);
		flow->v->owes_rows = false;
	}
	flow->state = weir_state_attach(flow->v, p->layout, &fresh);
	flow->continues = !fresh || !found;
	if (fresh)
		load_state(flow, found, snapshot);
	else
	{
		/* a predecessor's: position and state were published as a pair */
		Ensure(
			!found || pg_atomic_read_u64(&flow->v->position) >= row->position,
			"state in memory is behind the checkpoint of view %u", flow->view);
		flow->position = pg_atomic_read_u64(&flow->v->position);
		flow->watermark = flow->v->watermark;
	}
	if (p->spans)
	{
		p->timers = weir_timers_create(flow->cxt);
		weir_state_walk(flow->state, WEIR_PANE_SPANS, 0, set_timer, flow);
	}
	p->dirty = !found || flow->position != row->position;
	p->checkpoint.v = flow->v;
	p->checkpoint.state = flow->state;
	p->checkpoint.layout = p->layout;
	p->checkpoint.blob_bytes = found ? -1 : 0;
	p->checkpoint.closable = closable;
	p->checkpoint.close_windows = close_windows;
	p->checkpoint.overlap = weir_expand_needed(flow->plan);
	p->checkpoint.also = write_rows;
	p->checkpoint.arg = flow;
}

static WeirFlow *
make_flow(Oid view, int64 generation, bool answering, Snapshot snapshot,
		  MemoryContext parent)
{
	MemoryContext cxt =
		AllocSetContextCreate(parent, "weir flow", ALLOCSET_DEFAULT_SIZES);
	MemoryContext old = MemoryContextSwitchTo(cxt);
	WeirFlow *flow = palloc0(sizeof(WeirFlow));
	WeirFlowPrivate *p = palloc0(sizeof(WeirFlowPrivate));

	register_callbacks();
	flow->view = view;
	flow->generation = generation;
	flow->cxt = cxt;
	flow->priv = p;
	p->flow = flow;
	p->oldest_end = PG_INT64_MIN;
	p->late_events = weir_late_create(view, cxt);
	p->row_cxt =
		AllocSetContextCreate(cxt, "weir rows", ALLOCSET_DEFAULT_SIZES);
	init_cache(p);
	p->batch_cxt =
		AllocSetContextCreate(cxt, "weir batch", 0, 64 * 1024, 8 * 1024 * 1024);
	PG_TRY();
	{
		open_flow(flow, answering, snapshot);
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(old);
		if (p->node.next)
			dlist_delete(&p->node);
		if (flow->v && flow->v->worker_pid == MyProcPid)
		{
			/* half a load must never be taken for a state */
			if (!flow->v->state_valid)
				weir_state_discard(flow->v);
			weir_shmem_view_unclaim(flow->v);
		}
		weir_late_free(p->late_events);
		MemoryContextDelete(cxt);
		PG_RE_THROW();
	}
	PG_END_TRY();
	MemoryContextSwitchTo(old);
	return flow;
}

WeirFlow *
weir_flow_open(Oid view, int64 generation, bool answering, MemoryContext parent)
{
	return make_flow(view, generation, answering, NULL, parent);
}

WeirFlow *
weir_flow_open_copy(Oid view, int64 generation, Snapshot snapshot,
					MemoryContext parent)
{
	return make_flow(view, generation, true, snapshot, parent);
}

void
weir_flow_close(WeirFlow *flow)
{
	dlist_delete(&flow->priv->node);
	weir_state_detach(flow->state);
	if (flow->v->worker_pid == MyProcPid)
		weir_shmem_view_unclaim(flow->v);
	weir_late_free(flow->priv->late_events);
	MemoryContextDelete(flow->cxt);
}


/* ---------- the cache ---------- */

static inline uint32
bucket_of(const WeirFlowPrivate *p, int64 pane, uint32 hash)
{
	/* panes are far apart and few; a multiplication spreads them enough */
	return (hash ^
			(uint32) (((uint64) pane * UINT64CONST(0x9E3779B97F4A7C15)) >>
					  32)) &
		   (p->nbuckets - 1);
}

/* The smallest arrays, in the flow's context, in place of those there are. */
static void
make_arrays(WeirFlowPrivate *p)
{
	MemoryContext cxt = p->flow->cxt;
	Bucket *buckets = MemoryContextAlloc(cxt, MIN_BUCKETS * sizeof(Bucket));
	CachedGroup **groups =
		MemoryContextAlloc(cxt, MIN_BUCKETS / 2 * sizeof(CachedGroup *));
	WeirPut *puts = MemoryContextAlloc(cxt, MIN_BUCKETS / 2 * sizeof(WeirPut));

	if (p->buckets != NULL)
	{
		pfree(p->buckets);
		pfree(p->groups);
		pfree(p->puts);
	}
	p->buckets = buckets;
	p->groups = groups;
	p->puts = puts;
	p->bucket_space = MIN_BUCKETS;
	p->group_space = MIN_BUCKETS / 2;
}

static void
reset_cache(WeirFlowPrivate *p)
{
	/* what one batch needed and the next did not */
	if (p->group_space > KEPT_GROUPS && p->ngroups < p->group_space / 16)
		make_arrays(p);
	MemoryContextReset(p->batch_cxt);
	MemoryContextReset(p->row_cxt);
	while (p->nblocks > ARENA_KEEPS)
		pfree(p->blocks[--p->nblocks]);
	p->at_block = 0;
	p->arena_left = 0;
	p->nbuckets = MIN_BUCKETS;
	memset(p->buckets, 0, MIN_BUCKETS * sizeof(Bucket));
	p->ngroups = 0;
	p->nrows = 0;
	p->late = p->late_partial = 0;
	p->nfolded = 0;
	p->weigh_at = WEIGH_FIRST;
}

/* The first memory of the cache, in the flow's context. */
static void
init_cache(WeirFlowPrivate *p)
{
	make_arrays(p);
	p->blocks = palloc(ARENA_MAX_BLOCKS / 64 * sizeof(char *));
}

/* More than this could never be published, nor is it worth to be tried. */
static Size
cache_limit(void)
{
	return (Size) ARENA_KEEPS * ARENA_BLOCK +
		   4 * (Size) weir_state_memory * 1024;
}

static pg_noinline void
arena_next(WeirFlowPrivate *p)
{
	if (p->at_block == p->nblocks)
	{
		/* what is no use to keep, as it could never be published */
		if (p->nblocks == ARENA_MAX_BLOCKS ||
			(Size) p->nblocks * ARENA_BLOCK > cache_limit())
		{
			p->flow->too_large = true;
			weir_state_out_of_memory(p->flow->state);
		}
		if (p->nblocks == ARENA_MAX_BLOCKS / 64)
			p->blocks = repalloc(p->blocks, ARENA_MAX_BLOCKS * sizeof(char *));
		p->blocks[p->nblocks] = MemoryContextAlloc(p->flow->cxt, ARENA_BLOCK);
		p->nblocks++;
	}
	p->arena = p->blocks[p->at_block++];
	p->arena_left = ARENA_BLOCK;
}

/* MAXALIGNed memory of the batch that is never freed by itself. */
static inline void *
arena_alloc(WeirFlowPrivate *p, Size size)
{
	void *result;

	size = MAXALIGN(size);
	if (unlikely(size > p->arena_left))
	{
		if (size > ARENA_BLOCK / 4)
			return MemoryContextAllocHuge(p->batch_cxt, size);
		arena_next(p);
	}
	result = p->arena;
	p->arena += size;
	p->arena_left -= size;
	return result;
}

static void
place_group(WeirFlowPrivate *p, CachedGroup *g)
{
	uint32 i = bucket_of(p, g->pane, g->hash);

	while (p->buckets[i].group)
		i = (i + 1) & (p->nbuckets - 1);
	p->buckets[i].group = g;
	p->buckets[i].hash = g->hash;
}

static void
grow_cache(WeirFlowPrivate *p)
{
	uint32 n = p->nbuckets * 2;

	if (n > PG_UINT32_MAX / 4)
		ereport(ERROR, (errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
						errmsg("too many groups in one transaction")));
	if (n > p->bucket_space)
	{
		p->buckets = repalloc_huge(p->buckets, (Size) n * sizeof(Bucket));
		p->groups =
			repalloc_huge(p->groups, (Size) n / 2 * sizeof(CachedGroup *));
		p->puts = repalloc_huge(p->puts, (Size) n / 2 * sizeof(WeirPut));
		/* last: any of these may raise */
		p->bucket_space = n;
		p->group_space = n / 2;
	}
	p->nbuckets = n;
	memset(p->buckets, 0, (Size) n * sizeof(Bucket));
	for (uint32 i = 0; i < p->ngroups; i++)
		place_group(p, p->groups[i]);
}

static CachedGroup *
make_group(WeirFlowPrivate *p, int64 pane, uint32 hash, const char *key,
		   Size keylen, dsa_pointer ref)
{
	CachedGroup *g =
		arena_alloc(p, sizeof(CachedGroup) + MAXALIGN(keylen) + p->live_size);

	g->pane = pane;
	g->hash = hash;
	g->keylen = keylen;
	g->ref = ref;
	memcpy(group_key(g), key, keylen);
	return g;
}

/* Take a group into the cache: from the shared state, or new. */
static CachedGroup *
bring_group(WeirFlow *flow, int64 pane, uint32 hash, TupleTableSlot *row)
{
	WeirFlowPrivate *p = flow->priv;
	CachedGroup *g = NULL;
	dsa_pointer iter = 0;
	dsa_pointer ref;
	WeirGroup found;

	if (p->ngroups >= p->nbuckets / 2)
		grow_cache(p);
	while (weir_state_find(flow->state, pane, hash, &iter, &ref, &found))
	{
		if (!weir_keys_equal_bytes(p->keys, row->tts_values, row->tts_isnull,
								   found.key))
			continue;
		g = make_group(p, pane, hash, found.key, found.keylen, ref);
		if (p->spans)
			weir_spans_load(p->spans, group_live(g), p->batch_cxt, found.state,
							found.statelen, &p->limits);
		else
			weir_aggs_load(p->aggs, group_live(g), p->batch_cxt, found.state,
						   found.statelen);
		break;
	}
	if (g == NULL)
	{
		Size keylen;
		char *key =
			weir_keys_form(p->keys, row->tts_values, row->tts_isnull, &keylen);

		g = make_group(p, pane, hash, key, keylen, InvalidDsaPointer);
		if (p->spans)
			weir_spans_start(p->spans, group_live(g));
		else
			weir_aggs_start(p->aggs, group_live(g), p->batch_cxt);
	}
	place_group(p, g);
	p->groups[p->ngroups++] = g;
	return g;
}

static CachedGroup *
find_group(WeirFlow *flow, int64 pane, uint32 hash, TupleTableSlot *row)
{
	WeirFlowPrivate *p = flow->priv;
	uint32 i = bucket_of(p, pane, hash);

	for (; p->buckets[i].group; i = (i + 1) & (p->nbuckets - 1))
	{
		CachedGroup *g = p->buckets[i].group;

		if (p->buckets[i].hash == hash && g->pane == pane &&
			weir_keys_equal_bytes(p->keys, row->tts_values, row->tts_isnull,
								  group_key(g)))
			return g;
	}
	return bring_group(flow, pane, hash, row);
}

static void
prefetch_groups(WeirFlow *flow, int n)
{
	WeirFlowPrivate *p = flow->priv;

	for (int i = 0; i < n; i++)
		__builtin_prefetch(
			&p->buckets[bucket_of(p, p->panes[i], p->hashes[i])]);
	for (int i = 0; i < n; i++)
	{
		uint32 b = bucket_of(p, p->panes[i], p->hashes[i]);

		while (p->buckets[b].group && p->buckets[b].hash != p->hashes[i])
			b = (b + 1) & (p->nbuckets - 1);
		if (p->buckets[b].group)
		{
			__builtin_prefetch(p->buckets[b].group);
			__builtin_prefetch((char *) p->buckets[b].group + 64);
			__builtin_prefetch((char *) p->buckets[b].group + 128);
		}
		else
			weir_state_prefetch(flow->state, p->panes[i], p->hashes[i]);
	}
	weir_state_prefetch_entries(flow->state);
}

/*
 * What the arena does not have: spans of a key, states of any length.  Looked at
 * ever more seldom, as it takes as long as there are states with memory of their
 * own.
 */
static void
weigh_states(WeirFlow *flow)
{
	WeirFlowPrivate *p = flow->priv;

	p->weigh_at = p->nfolded + Max(p->nfolded / 4, WEIGH_FIRST);
	if (MemoryContextMemAllocated(p->batch_cxt, true) <= cache_limit())
		return;
	flow->too_large = true;
	weir_state_out_of_memory(flow->state);
}

/* Fold the rows gathered. */
static void
fold_rows(WeirFlow *flow)
{
	WeirFlowPrivate *p = flow->priv;
	MemoryContext old;
	int n = p->nrows;
	int64 missed;

	if (n == 0)
		return;
	CHECK_FOR_INTERRUPTS();
	p->nrows = 0;
	if (n > 1)
		prefetch_groups(flow, n);
	old = MemoryContextSwitchTo(p->row_cxt);
	for (int i = 0; i < n; i++)
	{
		TupleTableSlot *row = p->rows[i];
		CachedGroup *g = find_group(flow, p->panes[i], p->hashes[i], row);

		if (p->spans == NULL)
			weir_aggs_advance(p->aggs, group_live(g), p->batch_cxt, row,
							  p->ordinals[i]);
		else if (!weir_spans_advance(p->spans, group_live(g), p->batch_cxt, row,
									 p->ordinals[i], p->times[i], p->befores[i],
									 &missed))
		{
			p->late++;
			/* the event at hand: see receive_row */
			weir_late_add(p->late_events, missed, p->watermarks[*p->at_chunk]);
		}
	}
	MemoryContextSwitchTo(old);
	MemoryContextReset(p->row_cxt);
	p->nfolded += n;
	if (p->nfolded >= p->weigh_at ||
		MemoryContextMemAllocated(p->batch_cxt, false) > cache_limit())
		weigh_states(flow);
}

/*
 * The row's pane, and the end of the first window it counts in; false: the row
 * is late for all of its windows.
 */
static bool
row_pane(WeirFlow *flow, TupleTableSlot *slot, int64 *pane, int64 *first)
{
	WeirFlowPrivate *p = flow->priv;
	const WeirViewPlan *plan = flow->plan;
	const WeirWindow *w = &plan->window;
	int64 before;
	int64 key;

	if (w->kind == WEIR_WINDOW_NONE)
	{
		*pane = *first = WEIR_PANE_NONE;
		return true;
	}
	if (weir_window_is_span(w))
	{
		/* whether it is late depends on its key */
		*pane = *first = WEIR_PANE_SPANS;
		return true;
	}
	if (slot->tts_isnull[plan->window_key])
		ereport(ERROR, (errcode(ERRCODE_NOT_NULL_VIOLATION),
						errmsg("event time of a window must not be null")));
	key = DatumGetInt64(slot->tts_values[plan->window_key]);
	if (!p->memo_valid || key != p->memo_key)
	{
		p->memo_end = p->memo_last = weir_window_end(w, key);
		if (weir_window_overlaps(w))
			p->memo_last = weir_window_last(w, p->memo_end);
		p->memo_key = key;
		p->memo_valid = true;
	}
	*pane = p->memo_last;
	*first = p->memo_end;
	before = Max(
		flow->closed_before,
		weir_window_final_before(flow->lateness, p->watermarks[*p->at_chunk]));
	if (*pane <= before)
		return false;
	if (*first <= before)
		*first = weir_window_next_end(w, *pane, before);
	return true;
}

/* What spans.c asks of a row; its key is the same in all windows. */
static void
set_span_row(WeirFlow *flow, TupleTableSlot *row)
{
	WeirFlowPrivate *p = flow->priv;
	const WeirViewPlan *plan = flow->plan;
	const WeirWindow *w = &plan->window;
	int n = p->nrows;

	p->times[n] = p->befores[n] = 0;
	if (w->kind == WEIR_WINDOW_SESSION)
	{
		if (row->tts_isnull[plan->window_key])
			ereport(ERROR, (errcode(ERRCODE_NOT_NULL_VIOLATION),
							errmsg("event time of a window must not be null")));
		p->times[n] = weir_window_end(
						  w, DatumGetInt64(row->tts_values[plan->window_key])) -
					  w->size;
		p->befores[n] =
			Max(flow->closed_before,
				weir_window_final_through(w, flow->lateness,
										  p->watermarks[*p->at_chunk]));
	}
	for (int i = 0; i < plan->nkeys; i++)
	{
		if (!plan->keys[i].is_window)
			continue;
		row->tts_values[i] = (Datum) 0;
		row->tts_isnull[i] = true;
	}
}

/* The row counts from a later window on than its keys say. */
static void
set_first_window(WeirFlow *flow, TupleTableSlot *row, int64 end)
{
	const WeirViewPlan *plan = flow->plan;

	for (int i = 0; i < plan->nkeys; i++)
	{
		if (!plan->keys[i].is_window)
			continue;
		row->tts_values[i] =
			Int64GetDatum(plan->keys[i].is_window_end
							  ? end
							  : weir_window_start(&plan->window, end));
	}
}

/*
 * Gather a row for its group, or for that of one of the grouping sets (-1: there
 * are none).
 */
static void
gather_row(WeirFlow *flow, TupleTableSlot *slot, uint64 ordinal, int64 pane,
		   int64 first, int set)
{
	WeirFlowPrivate *p = flow->priv;
	const WeirViewPlan *plan = flow->plan;
	TupleTableSlot *row = p->rows[p->nrows];
	int natts = slot->tts_tupleDescriptor->natts;
	MemoryContext old;

	memcpy(row->tts_values, slot->tts_values, natts * sizeof(Datum));
	memcpy(row->tts_isnull, slot->tts_isnull, natts * sizeof(bool));
	if (pane == WEIR_PANE_SPANS)
		set_span_row(flow, row);
	else if (unlikely(first != p->memo_end &&
					  weir_window_overlaps(&plan->window)))
		set_first_window(flow, row, first);
	if (set >= 0)
	{
		for (int i = 0; i < plan->nkeys - 1; i++)
			if (!bms_is_member(i, plan->set_keys[set]))
				row->tts_isnull[i] = true;
		row->tts_values[plan->nkeys - 1] = Int32GetDatum(set);
	}
	old = MemoryContextSwitchTo(p->row_cxt);
	for (int i = 0; i < p->nbyref; i++)
	{
		int c = p->byref[i];

		if (!row->tts_isnull[c])
			row->tts_values[c] =
				datumCopy(row->tts_values[c], false, p->typlen[i]);
	}
	p->panes[p->nrows] = pane;
	p->ordinals[p->nrows] = ordinal;
	p->hashes[p->nrows] =
		weir_keys_hash(p->keys, row->tts_values, row->tts_isnull);
	MemoryContextSwitchTo(old);
	if (++p->nrows == ROW_BUFFER || flow->one_by_one ||
		/* only in the fold is it found that a row is late for its session */
		(p->spans != NULL && weir_late_is_kept(p->late_events)))
		fold_rows(flow);
}

/* The end of the first window of the row at hand that is not one that stays. */
static int64
first_built(const WeirFlow *flow, int64 pane)
{
	int64 first = flow->priv->memo_end;

	return first > flow->kept_through
			   ? first
			   : weir_window_next_end(&flow->plan->window, pane,
									  flow->kept_through);
}

/* Does WHERE keep the window of the row at hand that ends then? */
static bool
keeps_window(WeirFlow *flow, int64 end)
{
	WeirFlowPrivate *p = flow->priv;
	const WeirViewPlan *plan = flow->plan;
	TupleTableSlot *slot = p->window_econtext->ecxt_scantuple;

	ExecClearTuple(slot);
	for (int i = 0; i < slot->tts_tupleDescriptor->natts; i++)
		slot->tts_isnull[i] = i >= plan->nkeys || !plan->keys[i].is_window;
	set_first_window(flow, slot, end);
	ExecStoreVirtualTuple(slot);
	ResetExprContext(p->window_econtext);
	return ExecQual(p->window_quals, p->window_econtext);
}

/*
 * Of the windows of the row at hand, those that end before "first" are over.
 * Does WHERE keep one of the others?  *missed: a window that it keeps of those
 * that are over, the last one if there is no other; PG_INT64_MIN: none.
 */
static bool
choose_windows(WeirFlow *flow, int64 pane, int64 first, int64 *missed)
{
	WeirFlowPrivate *p = flow->priv;
	int64 end;

	if (!p->chosen_valid || p->chosen_end != p->memo_end ||
		p->chosen_first != first)
	{
		p->chosen_valid = false;
		p->chosen = false;
		p->chosen_missed = PG_INT64_MIN;
		for (end = first_built(flow, pane); !p->chosen;
			 end = weir_window_next_end(&flow->plan->window, pane, end))
		{
			CHECK_FOR_INTERRUPTS();
			if (keeps_window(flow, end))
			{
				p->chosen = end >= first;
				if (!p->chosen)
					p->chosen_missed = end;
			}
			if (end >= pane)
				break;
		}
		p->chosen_end = p->memo_end;
		p->chosen_first = first;
		p->chosen_valid = true;
	}
	*missed = p->chosen_missed;
	return p->chosen;
}

static bool
receive_row(TupleTableSlot *slot, DestReceiver *self)
{
	WeirFlow *flow = ((FoldReceiver *) self)->flow;
	WeirFlowPrivate *p = flow->priv;
	uint64 ordinal = p->next_ordinal++;
	int64 missed = PG_INT64_MIN; /* a window that it is late for, the last */
	int64 pane;
	int64 first;
	bool counts;

	slot_getallattrs(slot);
	counts = row_pane(flow, slot, &pane, &first);
	if (!counts)
	{
		/* whether it is late for windows that stay was judged when it came */
		if (pane <= flow->kept_through)
			return true;
		missed = pane;
	}
	else if (weir_window_overlaps(&flow->plan->window) &&
			 first != p->memo_end && first > first_built(flow, pane))
		missed = first_built(flow, pane);
	if (unlikely(p->window_quals != NULL))
		counts =
			choose_windows(flow, pane, counts ? first : PG_INT64_MAX, &missed);

	if (!counts)
	{
		if (missed == PG_INT64_MIN)
			return true; /* WHERE leaves none of its windows */
		p->late++;
		weir_late_add(p->late_events, missed, p->watermarks[*p->at_chunk]);
		return true;
	}
	if (missed != PG_INT64_MIN)
		p->late_partial++;
	if (flow->plan->nsets == 0)
		gather_row(flow, slot, ordinal, pane, first, -1);
	for (int set = 0; set < flow->plan->nsets; set++)
		gather_row(flow, slot, ordinal, pane, first, set);
	return true;
}

static void
start_receiver(DestReceiver *self, int operation, TupleDesc desc)
{
}

static void
end_receiver(DestReceiver *self)
{
}


/* ---------- a batch ---------- */

/* Of windows with end <= this the rows are in the heap, as far as any. */
static int64
in_heap_before(const WeirFlow *flow)
{
	return flow->priv->checkpoint.row.closed_before;
}

/* Of those memory need not keep the spans. */
static int64
swept_before(const WeirFlow *flow)
{
	/* what readers need is kept beside what parts do */
	return flow->priv->in_parts ? in_heap_before(flow)
								: weir_state_swept(flow->state);
}

/* What raises here leaves the flow with its old plan, and still to be planned. */
void
weir_flow_replan(WeirFlow *flow)
{
	if (!flow->priv->stale)
		return;
	PG_TRY();
	{
		make_plan(flow);
		note_owner(flow);
	}
	PG_CATCH();
	{
		flow->priv->stale = true;
		PG_RE_THROW();
	}
	PG_END_TRY();
}

void
weir_flow_begin(WeirFlow *flow)
{
	weir_flow_replan(flow);
	weir_late_rewind(flow->priv->late_events);
	weir_late_check_space(flow->priv->late_events);
	reset_cache(flow->priv);
	flow->batch_events = 0;
	flow->too_large = false;
	/* no batch has more rows than it adds to events_in: numbers only grow */
	flow->priv->next_ordinal = pg_atomic_read_u64(&flow->v->events_in);
	flow->priv->limits.swept = swept_before(flow);
	flow->priv->limits.before = weir_flow_final_before(flow);
	flow->priv->started = true;
}

void
weir_flow_slice(WeirFlow *flow, const int *at_chunk,
				const TimestampTz *watermarks, const WeirEventSource *source)
{
	WeirFlowPrivate *p = flow->priv;
	FoldReceiver receiver = {
		{receive_row, start_receiver, end_receiver, end_receiver, DestNone},
		flow};
	WeirSecure secure;
	QueryDesc *query;

	Assert(p->started);
	p->at_chunk = at_chunk;
	p->watermarks = watermarks;
	weir_late_slice(p->late_events, source);
	weir_secure_enter(&secure, flow->plan->owner, flow->options->settings);
	query = CreateQueryDesc(flow->input_plan, "continuous view",
							GetActiveSnapshot(), InvalidSnapshot, &receiver.pub,
							NULL, NULL, 0);
	ExecutorStart(query, 0);
	weir_executor_run(query);
	fold_rows(flow);
	ExecutorFinish(query);
	ExecutorEnd(query);
	FreeQueryDesc(query);
	weir_secure_leave(&secure);
}

/* Bytes of all cached groups, as puts; in the cache's memory.  Returns how many. */
static int
save_groups(WeirFlow *flow)
{
	WeirFlowPrivate *p = flow->priv;
	MemoryContext old = MemoryContextSwitchTo(p->batch_cxt);
	int nputs = 0;

	for (uint32 n = 0; n < p->ngroups; n++)
	{
		CachedGroup *g = p->groups[n];
		void *live = group_live(g);
		WeirPut *put = &p->puts[nputs];
		char *state;

		if ((n & 1023) == 0)
			CHECK_FOR_INTERRUPTS();
		/* all its rows were late */
		if (p->spans && weir_spans_is_empty(live) && !DsaPointerIsValid(g->ref))
			continue;
		put->group.pane = g->pane;
		put->group.hash = g->hash;
		put->group.key = group_key(g);
		put->group.keylen = g->keylen;
		put->group.statelen =
			p->spans ? weir_spans_save_size(p->spans, live, p->batch_cxt)
					 : weir_aggs_save_size(p->aggs, live, p->batch_cxt);
		state = arena_alloc(p, put->group.statelen);
		if (p->spans)
		{
			weir_spans_save(p->spans, live, state);
			p->most_spans = Max(p->most_spans, weir_spans_count(live));
			weir_timers_set(p->timers, g->hash,
							weir_spans_due(p->spans, state, put->group.statelen,
										   in_heap_before(flow)));
		}
		else
			weir_aggs_save(p->aggs, live, state);
		put->group.state = state;
		put->ref = g->ref;
		put->reserved = InvalidDsaPointer;
		put->remove = false;
		nputs++;
	}
	MemoryContextSwitchTo(old);
	return nputs;
}

void
weir_flow_publish(WeirFlow *flow, WeirPosition position, TimestampTz watermark)
{
	WeirFlowPrivate *p = flow->priv;
	WeirViewShared *v = flow->v;
	WeirPut *puts = NULL;
	int n = p->started ? (int) p->ngroups : 0;

	Assert(position >= flow->position);
	if (n > 0)
	{
		WeirSecure secure;

		weir_secure_enter(&secure, flow->plan->owner, flow->options->settings);
		n = save_groups(flow);
		puts = p->puts;
		weir_secure_leave(&secure);
		flow->too_large = true; /* if it raises */
		weir_state_reserve(flow->state, puts, n);
		flow->too_large = false;
	}
	weir_debug_point("publish");
	if (p->batch_errors)
	{
		MemoryContext old = MemoryContextSwitchTo(flow->cxt);

		p->errors = list_concat(p->errors, p->batch_errors);
		list_free(p->batch_errors);
		p->batch_errors = NIL;
		MemoryContextSwitchTo(old);
	}

	/*
	 * From here on nothing raises.  The counters first, so that whoever has
	 * waited for the position finds them.
	 */
	if (p->started)
	{
		pg_atomic_write_u64(&v->events_in, pg_atomic_read_u64(&v->events_in) +
											   flow->batch_events);
		pg_atomic_write_u64(&v->late, pg_atomic_read_u64(&v->late) + p->late);
		pg_atomic_write_u64(&v->late_partial,
							pg_atomic_read_u64(&v->late_partial) +
								p->late_partial);
		if (n > 0 || flow->batch_events > 0)
			p->dirty = true;
		weir_late_publish(p->late_events);
	}
	if (p->errors != NIL || weir_late_pending(p->late_events))
		v->owes_rows = true;
	weir_state_publish(flow->state, puts, n, position, watermark);
	if (position > pg_atomic_read_u64(&v->reached))
		pg_atomic_write_u64(&v->reached, position);
	flow->position = position;
	flow->watermark = watermark;
	flow->batch_events = 0;
	p->late = p->late_partial = 0;
	p->ngroups = 0;
	p->started = false;
}

static void
free_errors(List *errors)
{
	ListCell *lc;

	foreach(lc, errors)
	{
		SkippedEvent *e = lfirst(lc);

		if (e->json)
			pfree(e->json);
		pfree(e->sqlstate);
		pfree(e->message);
	}
	list_free_deep(errors);
}

void
weir_flow_discard(WeirFlow *flow)
{
	WeirFlowPrivate *p = flow->priv;

	weir_late_rewind(p->late_events);
	free_errors(p->batch_errors);
	p->batch_errors = NIL;
	p->ngroups = 0;
	p->nrows = 0;
	p->late = p->late_partial = 0;
	p->started = false;
	p->memo_valid = false;
	flow->batch_events = 0;
}

int64
weir_flow_final_before(WeirFlow *flow)
{
	if (flow->priv->in_parts)
		return flow->priv->parts_before;
	switch (flow->plan->window.kind)
	{
		case WEIR_WINDOW_NONE:
			return PG_INT64_MIN;
		case WEIR_WINDOW_COUNT:
			/* each that is complete: its row has been published */
			return (int64) pg_atomic_read_u64(&flow->v->events_in);
		default:
			return Max(weir_window_final_through(&flow->plan->window,
												 flow->lateness,
												 flow->watermark),
					   flow->closed_before);
	}
}

int64
weir_flow_next_end(WeirFlow *flow)
{
	const WeirWindow *w = &flow->plan->window;
	int64 pane;

	if (w->kind == WEIR_WINDOW_NONE)
		return PG_INT64_MAX; /* its only pane never ends */
	if (flow->priv->spans)
		return flow->priv->unclosed ? PG_INT64_MIN
									: weir_timers_next(flow->priv->timers);
	pane = weir_state_min_pane(flow->state);
	if (pane == PG_INT64_MAX || !weir_window_overlaps(w))
		return pane;
	return weir_window_next_end(
		w, pane, Max(weir_window_earliest(w, pane) - 1, in_heap_before(flow)));
}


/* ---------- final windows ---------- */

/* Rows of closing panes on their way to the view, or to view_pending. */
typedef struct Closing
{
	WeirFlow *flow;
	WeirFinalizer *finalizer;
	Relation rel;
	CommandId cid;
	int64 rows;

	/* into the view */
	EState *estate;
	ResultRelInfo *result_rel;

	/* into view_pending */
	CatalogIndexState indexes;
	MemoryContext row_cxt;
} Closing;

/* Columns of weir.view_pending. */
enum
{
	Anum_pending_view = 1,
	Anum_pending_generation,
	Anum_pending_pane,
	Anum_pending_data,
	Natts_pending = Anum_pending_data
};

/*
 * A row of a rebuild waits in view_pending as the MinimalTuple of the view's
 * columns, which cannot change while the view exists.
 */
static void
put_pending(Closing *c, int64 pane, TupleTableSlot *slot)
{
	MemoryContext old = MemoryContextSwitchTo(c->row_cxt);
	MinimalTuple row = ExecCopySlotMinimalTuple(slot);
	bytea *data = palloc(VARHDRSZ + row->t_len);
	Datum values[Natts_pending];
	bool nulls[Natts_pending] = {false};

	SET_VARSIZE(data, VARHDRSZ + row->t_len);
	memcpy(VARDATA(data), row, row->t_len);
	values[Anum_pending_view - 1] = ObjectIdGetDatum(c->flow->view);
	values[Anum_pending_generation - 1] = Int64GetDatum(c->flow->generation);
	values[Anum_pending_pane - 1] = Int64GetDatum(pane);
	values[Anum_pending_data - 1] = PointerGetDatum(data);
	CatalogTupleInsertWithInfo(
		c->rel, heap_form_tuple(RelationGetDescr(c->rel), values, nulls),
		c->indexes);
	MemoryContextSwitchTo(old);
	MemoryContextReset(c->row_cxt);
}

static void
close_group(const WeirGroup *g, void *arg)
{
	Closing *c = arg;
	TupleTableSlot *slot;

	CHECK_FOR_INTERRUPTS();
	slot = weir_final_row(c->finalizer, g);
	if (slot == NULL)
		return;
	c->rows++;
	if (c->result_rel == NULL)
	{
		put_pending(c, g->pane, slot);
		return;
	}
	table_tuple_insert(c->rel, slot, c->cid, 0, NULL);
	if (c->result_rel->ri_NumIndices > 0)
	{
		weir_insert_index_tuples(c->result_rel, slot, c->estate);
		ResetPerTupleExprContext(c->estate);
	}
}

/* The lock that writing needs, without waiting. */
static void
lock_for_rows(WeirFlow *flow)
{
	if (!ConditionalLockRelationOid(flow->view, RowExclusiveLock))
		ereport(ERROR,
				(errcode(ERRCODE_LOCK_NOT_AVAILABLE),
				 errmsg("could not lock continuous view \"%s\" to write its "
						"final rows",
						get_rel_name(flow->view))));
}

/* Does a window of this pane become final now? */
static bool
pane_closes(WeirFlow *flow, int64 pane, int64 final_before)
{
	const WeirWindow *w = &flow->plan->window;

	if (pane <= in_heap_before(flow))
		return false;
	if (weir_window_overlaps(w))
		pane = weir_window_next_end(
			w, pane,
			Max(weir_window_earliest(w, pane) - 1, in_heap_before(flow)));
	return pane <= final_before;
}

static int
compare_hashes(const void *a, const void *b)
{
	uint32 x = *(const uint32 *) a;
	uint32 y = *(const uint32 *) b;

	return x < y ? -1 : x > y;
}

/* Keys taken from that one on: each once, in order.  Returns how many there are. */
static uint64
sort_taken(WeirFlowPrivate *p, uint64 from)
{
	uint64 n = from;

	qsort(&p->taken[from], p->ntaken - from, sizeof(uint32), compare_hashes);
	for (uint64 i = from; i < p->ntaken; i++)
		if (n == from || p->taken[i] != p->taken[n - 1])
			p->taken[n++] = p->taken[i];
	return n;
}

static void
sort_all_taken(WeirFlowPrivate *p)
{
	if (p->nsorted < p->ntaken)
		p->ntaken = sort_taken(p, 0);
	p->nsorted = p->ntaken;
}

/* Call back with the groups of the keys taken, from that one on. */
static void
walk_taken(WeirFlow *flow, uint64 from, WeirGroupCallback callback, void *arg)
{
	WeirFlowPrivate *p = flow->priv;

	for (uint64 i = from; i < p->ntaken; i++)
	{
		dsa_pointer iter = 0;
		dsa_pointer ref;
		WeirGroup g;

		Assert(i == from || p->taken[i] > p->taken[i - 1]);
		CHECK_FOR_INTERRUPTS();
		while (weir_state_find(flow->state, WEIR_PANE_SPANS, p->taken[i], &iter,
							   &ref, &g))
			callback(&g, arg);
	}
}

/*
 * From the timers to the keys taken, those that are due.  A key that has had rows
 * since it was taken is due again.
 */
static void
take_due(WeirFlow *flow, int64 final_before)
{
	WeirFlowPrivate *p = flow->priv;

	for (;;)
	{
		if (p->ntaken == p->taken_size)
		{
			uint64 size = Max(p->taken_size * 2, 64);

			if (p->taken == NULL)
				p->taken =
					MemoryContextAllocHuge(flow->cxt, size * sizeof(uint32));
			else
				p->taken = repalloc_huge(p->taken, size * sizeof(uint32));
			p->taken_size = size;
		}
		if (!weir_timers_take(p->timers, final_before, &p->taken[p->ntaken]))
			break;
		p->ntaken++;
	}
}

typedef struct LookAtSpans
{
	WeirFlow *flow;
	int64 final_before;
	bool closable; /* there is a window to be closed */
} LookAtSpans;

/* WeirGroupCallback: and set the timer for what is not yet due of the key. */
static void
look_at_spans(const WeirGroup *g, void *arg)
{
	LookAtSpans *look = arg;
	WeirFlow *flow = look->flow;
	WeirFlowPrivate *p = flow->priv;
	int64 due =
		weir_spans_due(p->spans, g->state, g->statelen, look->final_before);

	if (due > look->final_before)
		weir_timers_set(p->timers, g->hash, due);
	if (!look->closable)
		look->closable =
			weir_spans_any(p->spans, g->state, g->statelen,
						   in_heap_before(flow), look->final_before);
}

/*
 * Take the keys that are due.  Is there a window to be closed?  May be cancelled:
 * then there is one, as far as anybody knows, and all keys are looked at again.
 */
static bool
spans_closable(WeirFlow *flow, int64 final_before)
{
	WeirFlowPrivate *p = flow->priv;
	LookAtSpans look = {flow, final_before, false};

	p->unclosed = true;
	take_due(flow, final_before);
	sort_all_taken(p);
	weir_debug_point("spans-taken");
	walk_taken(flow, 0, look_at_spans, &look);
	p->unclosed = look.closable;
	return look.closable;
}

/*
 * The same where it is enough to look at those that are due now, until a
 * checkpoint looks at all: of the others it is known whether there is one.
 */
static void
look_at_due(WeirFlow *flow, int64 final_before)
{
	WeirFlowPrivate *p = flow->priv;
	LookAtSpans look = {flow, final_before, p->unclosed};
	uint64 from = p->ntaken;

	p->unclosed = true;
	/* a key may be due often */
	if (from - p->nsorted > Max(p->nsorted, 1024))
	{
		sort_all_taken(p);
		from = p->ntaken;
	}
	take_due(flow, final_before);
	p->ntaken = sort_taken(p, from);
	weir_debug_point("spans-taken");
	walk_taken(flow, from, look_at_spans, &look);
	p->unclosed = look.closable;
}

bool
weir_flow_piles_up(const WeirFlow *flow)
{
	return flow->priv->most_spans > MANY_SPANS;
}

int64
weir_flow_open_end(WeirFlow *flow)
{
	const WeirWindow *w = &flow->plan->window;
	int64 after = weir_flow_final_before(flow);
	int64 pane;

	if (w->kind == WEIR_WINDOW_COUNT)
		return PG_INT64_MAX;
	if (w->kind == WEIR_WINDOW_SESSION)
	{
		if (weir_timers_next(flow->priv->timers) <= after)
			look_at_due(flow, after);
		return weir_timers_next(flow->priv->timers);
	}
	pane = weir_state_next_pane(flow->state, after);
	if (pane == PG_INT64_MAX || !weir_window_overlaps(w))
		return pane;
	return weir_window_next_end(w, pane,
								Max(weir_window_earliest(w, pane) - 1, after));
}

/* WeirCheckpoint.closable: finds the panes for close_windows. */
static bool
closable(void *arg, int64 final_before)
{
	WeirFlow *flow = arg;
	WeirFlowPrivate *p = flow->priv;
	int64 through = final_before;
	int n;

	if (p->spans)
		return spans_closable(flow, final_before);
	if (weir_window_overlaps(&flow->plan->window) &&
		pg_add_s64_overflow(final_before, flow->plan->window.size, &through))
		through = PG_INT64_MAX - 2;
	n = weir_state_panes(flow->state, through, &p->closing);
	p->nclosing = 0;
	for (int i = 0; i < n; i++)
		if (pane_closes(flow, p->closing[i], final_before))
			p->closing[p->nclosing++] = p->closing[i];
	return p->nclosing > 0;
}

/* WeirGroupCallback */
static void
expand_group(const WeirGroup *g, void *arg)
{
	weir_expand_add(arg, g, false);
}

/* Windows of groups that may stay. */
static void
close_expanded(Closing *c, int64 final_before)
{
	WeirFlow *flow = c->flow;
	WeirFlowPrivate *p = flow->priv;
	WeirExpander *x = weir_expand_create(flow->plan);

	if (p->spans)
		walk_taken(flow, 0, expand_group, x);
	else
		for (int i = 0; i < p->nclosing; i++)
			weir_state_walk(flow->state, p->closing[i], 0, expand_group, x);
	weir_expand_finish(x, in_heap_before(flow), final_before, close_group, c);
	weir_expand_free(x);
}

/* WeirCheckpoint.close_windows */
static int64
close_windows(void *arg, int64 final_before, TransactionId xid)
{
	WeirFlow *flow = arg;
	WeirFlowPrivate *p = flow->priv;
	WeirSecure secure;
	Closing c = {.flow = flow};

	weir_flow_replan(flow);
	if (p->checkpoint.row.answering)
	{
		lock_for_rows(flow);
		c.rel = table_open(flow->view, NoLock);
	}
	else
	{
		c.rel =
			weir_catalog_open("view_pending", Natts_pending, RowExclusiveLock);
		c.indexes = CatalogOpenIndexes(c.rel);
		c.row_cxt = AllocSetContextCreate(CurrentMemoryContext, "weir pending",
										  ALLOCSET_DEFAULT_SIZES);
	}

	weir_secure_enter(&secure, flow->plan->owner, flow->options->settings);
	c.finalizer = weir_final_create(flow->plan);
	if (strcmp(weir_final_layout(c.finalizer), p->layout) != 0)
		layout_has_changed(flow);
	c.cid = GetCurrentCommandId(true);
	if (p->checkpoint.row.answering)
	{
		c.estate = CreateExecutorState();
		c.result_rel = makeNode(ResultRelInfo);
		InitResultRelInfo(c.result_rel, c.rel, 1, NULL, 0);
		ExecOpenIndices(c.result_rel, false);
	}
	if (weir_expand_needed(flow->plan))
		close_expanded(&c, final_before);
	else
		for (int i = 0; i < p->nclosing; i++)
			weir_state_walk(flow->state, p->closing[i], 0, close_group, &c);
	if (c.result_rel)
	{
		ExecCloseIndices(c.result_rel);
		FreeExecutorState(c.estate);
	}
	weir_final_free(c.finalizer);
	weir_secure_leave(&secure);

	if (c.indexes)
	{
		CatalogCloseIndexes(c.indexes);
		MemoryContextDelete(c.row_cxt);
	}
	table_close(c.rel, NoLock);
	return c.rows;
}


/* ---------- errors ---------- */

void
weir_flow_add_error(WeirFlow *flow, const char *json, const char *sqlstate,
					const char *message)
{
	WeirFlowPrivate *p = flow->priv;
	MemoryContext old = MemoryContextSwitchTo(flow->cxt);
	SkippedEvent *e = palloc(sizeof(SkippedEvent));

	e->json = json ? pstrdup(json) : NULL;
	e->sqlstate = pstrdup(sqlstate);
	e->message = pstrdup(message);
	p->batch_errors = lappend(p->batch_errors, e);
	MemoryContextSwitchTo(old);
}

static void
write_error_list(WeirFlow *flow, List *errors)
{
	ListCell *lc;

	foreach(lc, errors)
	{
		SkippedEvent *e = lfirst(lc);

		weir_catalog_error_add(flow->view, flow->generation, flow->plan->stream,
							   e->json, e->sqlstate, e->message);
	}
}

/* WeirCheckpoint.also */
static void
write_rows(void *arg)
{
	WeirFlow *flow = arg;
	WeirFlowPrivate *p = flow->priv;

	write_error_list(flow, p->errors);
	weir_flow_replan(flow);
	weir_late_write(p->late_events, flow->plan, &p->checkpoint.row);
}


/* ---------- the durable side ---------- */

const WeirPositionRow *
weir_flow_row(const WeirFlow *flow)
{
	return &flow->priv->checkpoint.row;
}

bool
weir_flow_dirty(const WeirFlow *flow)
{
	const WeirFlowPrivate *p = flow->priv;
	int64 final_before = weir_flow_final_before(unconstify(WeirFlow *, flow));

	return p->dirty || flow->watermark != p->checkpoint.row.watermark ||
		   (final_before != PG_INT64_MIN &&
			weir_flow_next_end(unconstify(WeirFlow *, flow)) <= final_before);
}

bool
weir_flow_wants_checkpoint(const WeirFlow *flow)
{
	return weir_late_is_large(flow->priv->late_events);
}

bool
weir_flow_is_stale(const WeirFlow *flow)
{
	return flow->priv->stale;
}

bool
weir_flow_adopt_lateness(WeirFlow *flow)
{
	WeirFlowPrivate *p = flow->priv;
	bool adopts = flow->lateness != flow->options->allowed_lateness;
	bool changed = p->adopts != adopts;

	p->adopts = adopts;
	p->dirty = p->dirty || adopts;
	return adopts && changed;
}

bool
weir_flow_adopts(const WeirFlow *flow)
{
	return flow->priv->adopts;
}

void
weir_flow_set_built(WeirFlow *flow)
{
	flow->priv->checkpoint.row.built = true;
	flow->priv->dirty = true;
}

/* What a checkpoint that is durable has taken over. */
static void
checkpoint_is_through(WeirFlow *flow)
{
	WeirFlowPrivate *p = flow->priv;

	flow->closed_before = p->checkpoint.row.closed_before;
	p->adopts = false;
	pg_atomic_write_u64(&flow->v->allowed_lateness, flow->lateness);
	p->unclosed = false;
	p->most_spans = 0;
	free_errors(p->errors);
	p->errors = NIL;
	weir_late_written(p->late_events);
	flow->v->owes_rows = false;
	p->dirty = false;
}

/*
 * The row kept in checkpoint.row is always the durable one: only when the
 * checkpoint is through does it take what memory has.
 */
bool
weir_flow_checkpoint(WeirFlow *flow)
{
	WeirFlowPrivate *p = flow->priv;
	WeirCheckpoint *c = &p->checkpoint;
	WeirViewShared *v = flow->v;
	WeirPositionRow durable = c->row;
	int64 lateness = flow->lateness;
	int64 closed_before = flow->closed_before;
	bool done;

	Assert(!p->started);
	if (p->adopts)
	{
		/* what was final stays so: a longer lateness is for windows to come */
		flow->closed_before = weir_flow_final_before(flow);
		flow->lateness = flow->options->allowed_lateness;
	}
	c->row.position = flow->position;
	c->row.watermark = flow->watermark;
	c->row.allowed_lateness = flow->lateness;
	c->row.events_in = pg_atomic_read_u64(&v->events_in);
	c->row.late = pg_atomic_read_u64(&v->late);
	c->row.late_partial = pg_atomic_read_u64(&v->late_partial);
	PG_TRY();
	{
		done = weir_checkpoint_run(c, weir_flow_final_before(flow));
	}
	PG_CATCH();
	{
		/* what has committed stays so */
		if (c->row.checkpoint_seq != durable.checkpoint_seq)
			checkpoint_is_through(flow);
		else
		{
			c->row = durable;
			flow->lateness = lateness;
			flow->closed_before = closed_before;
		}
		PG_RE_THROW();
	}
	PG_END_TRY();
	if (done)
		checkpoint_is_through(flow);
	else
	{
		c->row = durable;
		flow->lateness = lateness;
		flow->closed_before = closed_before;
	}
	return done;
}

bool
weir_flow_write_ahead(WeirFlow *flow, int64 us, bool *more)
{
	WeirFlowPrivate *p = flow->priv;
	WeirCheckpoint *c = &p->checkpoint;
	bool ok = true;

	Assert(!p->started);
	*more = false;
	PG_TRY();
	{
		ok = weir_checkpoint_ahead(c, us, more);
	}
	PG_CATCH();
	{
		weir_checkpoint_ahead_failed(c);
		PG_RE_THROW();
	}
	PG_END_TRY();
	return ok;
}


/* ---------- a transaction in parts ---------- */

/*
 * Of the keys taken: forget windows that need not be kept, and say when there is
 * something to do for them again.  Those that wait for a snapshot stay taken.
 */
static void
trim_taken(WeirFlow *flow)
{
	WeirFlowPrivate *p = flow->priv;
	WeirSpanLimits limits = {swept_before(flow), weir_flow_final_before(flow)};
	int64 closed = in_heap_before(flow);
	WeirSpanLimits unseen = {closed, limits.before};
	WeirPut *puts = palloc(sizeof(WeirPut) * 64);
	int nputs = 0;
	int size = 64;
	uint32 *kept;
	uint64 nkept = 0;

	sort_all_taken(p);
	kept = MemoryContextAllocHuge(CurrentMemoryContext,
								  p->ntaken * sizeof(uint32));
	for (uint64 i = 0; i < p->ntaken; i++)
	{
		uint32 hash = p->taken[i];
		dsa_pointer iter = 0;
		dsa_pointer ref;
		bool waits = false;
		int64 due = PG_INT64_MAX;
		WeirGroup g;

		CHECK_FOR_INTERRUPTS();
		while (weir_state_find(flow->state, WEIR_PANE_SPANS, hash, &iter, &ref,
							   &g))
		{
			Size len = g.statelen;
			char *trimmed = weir_spans_trim(p->spans, g.state, &len, &limits);
			char *rest = NULL;
			Size rest_len = len;
			WeirPut *put;

			/* what will be left when no snapshot needs the others any more */
			if (trimmed != NULL)
				rest = weir_spans_trim(p->spans, trimmed, &rest_len, &unseen);
			if (rest != NULL)
			{
				due =
					Min(due, weir_spans_due(p->spans, rest, rest_len, closed));
				pfree(rest);
			}
			waits |= trimmed != NULL && (rest == NULL || rest_len < len);
			if (trimmed != NULL && len == g.statelen)
			{
				pfree(trimmed);
				continue;
			}
			if (trimmed == NULL && weir_state_is_held(flow->state, ref))
			{
				waits = true;
				continue;
			}
			if (nputs == size)
			{
				size *= 2;
				puts = repalloc_huge(puts, size * sizeof(WeirPut));
			}
			put = &puts[nputs++];
			MemSet(put, 0, sizeof(WeirPut));
			put->group = g;
			put->group.key = memcpy(palloc(g.keylen), g.key, g.keylen);
			put->group.state = trimmed;
			put->group.statelen = len;
			put->ref = ref;
			put->remove = trimmed == NULL;
		}
		if (waits)
			kept[nkept++] = hash;
		weir_timers_set(p->timers, hash, due);
	}
	weir_debug_point("spans-trimmed");
	if (nputs > 0)
	{
		weir_state_reserve(flow->state, puts, nputs);
		weir_state_publish(flow->state, puts, nputs, flow->position,
						   flow->watermark);
	}
	/* until here they have to be looked at again */
	memcpy(p->taken, kept, nkept * sizeof(uint32));
	p->ntaken = p->nsorted = nkept;
	pfree(kept);
}

/* WeirCheckpoint.parts */
static int64
run_parts(void *arg)
{
	WeirFlow *flow = arg;
	WeirFlowPrivate *p = flow->priv;
	WeirPositionRow *row = &p->checkpoint.row;
	WeirViewShared *v = flow->v;

	p->parts_before = weir_flow_final_before(flow);
	p->in_parts = true;
	/* windows that only old snapshots need are found in the heap, too */
	(void) weir_state_drop_closed(flow->state);
	weir_state_hide(flow->state);
	p->fold(p->fold_arg);
	flow->too_large = true; /* what the checkpoint finds too large, too */
	row->position = p->parts_position;
	row->watermark = p->parts_watermark;
	row->events_in = pg_atomic_read_u64(&v->events_in);
	row->late = pg_atomic_read_u64(&v->late);
	row->late_partial = pg_atomic_read_u64(&v->late_partial);
	if (flow->plan->window.kind != WEIR_WINDOW_COUNT)
		p->parts_before =
			Max(p->parts_before,
				weir_window_final_through(&flow->plan->window, flow->lateness,
										  p->parts_watermark));
	return p->parts_before;
}

/* WeirCheckpoint.show */
static void
show_parts(void *arg, int64 closed_before)
{
	WeirFlow *flow = arg;
	WeirFlowPrivate *p = flow->priv;

	weir_state_show(flow->state, closed_before, p->parts_position,
					p->parts_watermark);
}

bool
weir_flow_is_half_through(const WeirFlow *flow)
{
	return flow->priv->in_parts;
}

bool
weir_flow_can_part(const WeirFlow *flow)
{
	const WeirWindow *w = &flow->plan->window;

	return w->kind != WEIR_WINDOW_NONE && !w->by_arrival;
}

void
weir_flow_part(WeirFlow *flow, TimestampTz rest)
{
	WeirFlowPrivate *p = flow->priv;
	const WeirWindow *w = &flow->plan->window;
	int64 through;

	Assert(p->in_parts && p->started);
	weir_flow_publish(flow, flow->position, flow->watermark);
	if (w->kind == WEIR_WINDOW_COUNT)
		through = (int64) pg_atomic_read_u64(&flow->v->events_in);
	else
		through = Min(
			weir_window_final_through(w, 0, rest),
			weir_window_final_through(w, flow->lateness, p->parts_watermark));
	p->parts_before = Max(p->parts_before, through);
	flow->too_large = true; /* what is raised for want of memory here */
	if (weir_checkpoint_close(&p->checkpoint, p->parts_before))
	{
		p->unclosed = false;
		p->most_spans = 0;
		weir_state_drop_hidden(flow->state);
	}
	if (p->ntaken > 0 && !p->unclosed)
		trim_taken(flow);
	if (weir_late_is_large(p->late_events))
	{
		weir_late_write(p->late_events, flow->plan, &p->checkpoint.row);
		weir_late_written(p->late_events);
	}
	flow->too_large = false;
}

bool
weir_flow_consume_in_parts(WeirFlow *flow, void (*fold)(void *arg), void *arg,
						   WeirPosition position, TimestampTz watermark)
{
	WeirFlowPrivate *p = flow->priv;
	WeirCheckpoint *c = &p->checkpoint;
	int64 seq = c->row.checkpoint_seq;
	bool done;

	Assert(!p->started && !weir_flow_dirty(flow));
	p->fold = fold;
	p->fold_arg = arg;
	p->parts_position = position;
	p->parts_watermark = watermark;
	c->parts = run_parts;
	c->show = show_parts;
	flow->v->owes_rows = true; /* until all is durable */
	PG_TRY();
	{
		done = weir_checkpoint_run(c, PG_INT64_MIN);
	}
	PG_CATCH();
	{
		/* whatever the transaction has become: the flow is of no use any more,
		 * and its successor begins at the checkpoint */
		if (c->row.checkpoint_seq == seq)
			weir_state_doubt();
		else
			weir_state_shown();
		PG_RE_THROW();
	}
	PG_END_TRY();
	weir_state_shown();
	c->parts = NULL;
	c->show = NULL;
	p->in_parts = false;
	flow->too_large = false;
	if (!done)
		return false;
	flow->position = position;
	flow->watermark = watermark;
	checkpoint_is_through(flow);
	return true;
}


/* ---------- the durable side, again ---------- */

bool
weir_flow_record_failure(WeirFlow *flow, int64 resumes, const char *sqlstate,
						 const char *message)
{
	WeirFlowPrivate *p = flow->priv;
	WeirCheckpoint *c = &p->checkpoint;
	WeirPositionRow row = c->row;
	ItemPointerData tid = c->tid;
	MemoryContext old;

	row.failed_resumes = message ? resumes : -1;
	row.sqlstate = sqlstate ? MemoryContextStrdup(flow->cxt, sqlstate) : NULL;
	row.error = message ? MemoryContextStrdup(flow->cxt, message) : NULL;
	if (!ItemPointerIsValid(&tid))
	{
		/* the first row of this generation: an empty checkpoint */
		row.format = WEIR_BLOB_FORMAT;
		row.server_major = WEIR_SERVER_MAJOR;
		row.layout = p->layout;
	}

	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	PushActiveSnapshot(GetTransactionSnapshot());
	(void) lock_view(flow->view, AccessShareLock);
	if (message && p->batch_errors)
		write_error_list(flow, p->batch_errors);
	else if (message)
		weir_catalog_error_add(flow->view, flow->generation, flow->plan->stream,
							   NULL, sqlstate, message);
	if (!weir_catalog_position_put(&row, &tid))
	{
		AbortCurrentTransaction();
		return false;
	}
	PopActiveSnapshot();
	CommitTransactionCommand();

	old = MemoryContextSwitchTo(flow->cxt);
	free_errors(p->batch_errors);
	p->batch_errors = NIL;
	MemoryContextSwitchTo(old);
	c->row = row;
	c->tid = tid;
	return true;
}

void
weir_flow_sweep(WeirFlow *flow)
{
	WeirFlowPrivate *p = flow->priv;
	Relation view;
	TransactionId oldest;

	Assert(!p->started);
	if (!weir_state_has_stamps(flow->state) && p->ntaken == 0)
		return;
	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	if (ConditionalLockRelationOid(flow->view, AccessShareLock))
	{
		view = try_relation_open(flow->view, NoLock);
		if (view != NULL)
		{
			oldest = flow->priv->checkpoint.row.answering
						 ? GetOldestNonRemovableTransactionId(view)
						 : ReadNextTransactionId();
			relation_close(view, NoLock);
			weir_state_sweep(flow->state, oldest);
		}
	}
	if (p->ntaken > 0 && !p->unclosed)
		trim_taken(flow);
	CommitTransactionCommand();
}

bool
weir_flow_shows_window(const WeirViewPlan *plan)
{
	return plan->window_end_column != 0 || plan->window_start_column != 0;
}

/* The end of the window that a final row shows; false: it shows none. */
static bool
row_window_end(const WeirViewPlan *plan, TupleTableSlot *slot, int64 *end)
{
	WeirWindow window = plan->window;
	int column = plan->window_end_column;
	bool isnull;
	Datum value;

	if (column == 0)
		column = plan->window_start_column;
	if (column == 0)
		return false;
	value = slot_getattr(slot, column, &isnull);
	if (isnull)
		return false;
	window.key_is_end = plan->window_end_column != 0;
	*end = weir_window_end(&window, DatumGetInt64(value));
	return true;
}

/*
 * Deletes by one pass over the view's heap.  Returns the end of the oldest window
 * that stays; what comes later is of windows after those that are closed now.
 */
static int64
delete_expired(WeirFlow *flow, int64 before)
{
	int64 oldest = flow->closed_before;
	Relation rel;
	TableScanDesc scan;
	TupleTableSlot *slot;
	Snapshot snapshot = GetActiveSnapshot();
	CommandId cid;

	lock_for_rows(flow);
	rel = table_open(flow->view, NoLock);
	cid = GetCurrentCommandId(true);
	slot = table_slot_create(rel, NULL);
	scan = table_beginscan(rel, snapshot, 0, NULL);
	while (table_scan_getnextslot(scan, ForwardScanDirection, slot))
	{
		TM_FailureData failure;
		int64 end;

		CHECK_FOR_INTERRUPTS();
		if (!row_window_end(flow->plan, slot, &end))
			continue;
		if (end >= before || end > flow->closed_before ||
			table_tuple_delete(rel, &slot->tts_tid, cid, snapshot,
							   InvalidSnapshot, true, &failure, false) != TM_Ok)
			oldest = Min(oldest, end);
	}
	table_endscan(scan);
	ExecDropSingleTupleTableSlot(slot);
	table_close(rel, NoLock);
	return oldest;
}

/* Rows that have outlived their time by that share of it are worth a pass. */
#define EXPIRE_SHARE 16

void
weir_flow_expire(WeirFlow *flow, bool all)
{
	WeirFlowPrivate *p = flow->priv;
	int64 oldest = p->oldest_end;
	int64 before;
	int64 worth;

	if (flow->options->retention == PG_INT64_MAX && !flow->priv->stale)
		return;
	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	PushActiveSnapshot(GetTransactionSnapshot());
	weir_flow_replan(flow);
	if (flow->options->retention != PG_INT64_MAX &&
		flow->plan->window.kind != WEIR_WINDOW_NONE &&
		!TIMESTAMP_NOT_FINITE(flow->watermark) &&
		!pg_sub_s64_overflow(flow->watermark, flow->options->retention,
							 &before))
	{
		worth = all ? 0 : flow->options->retention / EXPIRE_SHARE;
		if (pg_add_s64_overflow(oldest, worth, &worth))
			worth = PG_INT64_MAX;
		if (before > worth)
			oldest = delete_expired(flow, before);
	}
	PopActiveSnapshot();
	CommitTransactionCommand();
	p->oldest_end = oldest;
}


/* ---------- the swap ---------- */

/*
 * The final rows of windows with end <= through, as the active snapshot shows
 * them: how many; they go into the heap "to" as well, frozen, unless it is NULL.
 */
static int64
keep_rows(const WeirViewPlan *plan, Relation view, int64 through, Relation to)
{
	TupleTableSlot *slot = table_slot_create(view, NULL);
	BulkInsertState bistate = to ? GetBulkInsertState() : NULL;
	CommandId cid = to ? GetCurrentCommandId(true) : 0;
	TableScanDesc scan = table_beginscan(view, GetActiveSnapshot(), 0, NULL);
	int64 count = 0;

	while (table_scan_getnextslot(scan, ForwardScanDirection, slot))
	{
		int64 end;

		CHECK_FOR_INTERRUPTS();
		if (!row_window_end(plan, slot, &end) || end > through)
			continue;
		count++;
		if (to)
			table_tuple_insert(to, slot, cid,
							   TABLE_INSERT_SKIP_FSM | TABLE_INSERT_FROZEN,
							   bistate);
	}
	table_endscan(scan);
	ExecDropSingleTupleTableSlot(slot);
	if (bistate)
		FreeBulkInsertState(bistate);
	return count;
}

int64
weir_flow_count_final(const WeirViewPlan *plan, Relation view, int64 through)
{
	int64 count;

	PushActiveSnapshot(GetLatestSnapshot());
	count = keep_rows(plan, view, through, NULL);
	PopActiveSnapshot();
	return count;
}

/*
 * What stays must be in the heap, all of it.  It was when the rebuild was asked
 * for; but if another rebuild has taken its place since, with a longer lateness,
 * that has yet to close some of those windows.
 */
static void
check_kept_windows(WeirFlow *flow, const WeirPositionRow *old)
{
	if (flow->kept_through == PG_INT64_MIN ||
		(old != NULL && old->closed_before >= flow->kept_through))
		return;
	ereport(ERROR, (errcode(ERRCODE_LOCK_NOT_AVAILABLE),
					errmsg("rebuild of continuous view \"%s\" waits for "
						   "windows to be final",
						   get_rel_name(flow->view)),
					errdetail("The events of some are not in the log any "
							  "more.")));
}

/* Move this generation's pending rows into the new heap, frozen. */
static void
fill_heap(WeirFlow *flow, Relation heap)
{
	Relation rel =
		weir_catalog_open("view_pending", Natts_pending, AccessShareLock);
	Relation index =
		index_open(weir_catalog_table("view_pending_idx"), AccessShareLock);
	TupleTableSlot *slot =
		MakeSingleTupleTableSlot(RelationGetDescr(heap), &TTSOpsMinimalTuple);
	TupleTableSlot *row =
		MakeSingleTupleTableSlot(RelationGetDescr(heap), &TTSOpsVirtual);
	BulkInsertState bistate = GetBulkInsertState();
	CommandId cid = GetCurrentCommandId(true);
	MemoryContext cxt = AllocSetContextCreate(
		CurrentMemoryContext, "weir pending row", ALLOCSET_DEFAULT_SIZES);
	ScanKeyData keys[2];
	SysScanDesc scan;
	HeapTuple tuple;

	ScanKeyInit(&keys[0], Anum_pending_view, BTEqualStrategyNumber, F_OIDEQ,
				ObjectIdGetDatum(flow->view));
	ScanKeyInit(&keys[1], Anum_pending_generation, BTEqualStrategyNumber,
				F_INT8EQ, Int64GetDatum(flow->generation));
	scan = systable_beginscan_ordered(rel, index, GetActiveSnapshot(), 2, keys);
	while (HeapTupleIsValid(
		tuple = systable_getnext_ordered(scan, ForwardScanDirection)))
	{
		MemoryContext old = MemoryContextSwitchTo(cxt);
		bool isnull;
		bytea *data = DatumGetByteaP(heap_getattr(
			tuple, Anum_pending_data, RelationGetDescr(rel), &isnull));
		Size len = VARSIZE(data) - VARHDRSZ;
		MinimalTuple mintuple;

		CHECK_FOR_INTERRUPTS();
		Ensure(len >= SizeofMinimalTupleHeader, "pending row is too short");
		mintuple = palloc(len);
		memcpy(mintuple, VARDATA(data), len);
		Ensure(mintuple->t_len == len, "pending row has a wrong length");
		ExecStoreMinimalTuple(mintuple, slot, false);
		ExecCopySlot(row, slot);
		table_tuple_insert(heap, row, cid,
						   TABLE_INSERT_SKIP_FSM | TABLE_INSERT_FROZEN,
						   bistate);
		ExecClearTuple(slot);
		ExecClearTuple(row);
		MemoryContextSwitchTo(old);
		MemoryContextReset(cxt);
	}
	systable_endscan_ordered(scan);
	FreeBulkInsertState(bistate);
	table_finish_bulk_insert(heap, TABLE_INSERT_SKIP_FSM | TABLE_INSERT_FROZEN);
	ExecDropSingleTupleTableSlot(slot);
	ExecDropSingleTupleTableSlot(row);
	MemoryContextDelete(cxt);
	index_close(index, AccessShareLock);
	table_close(rel, AccessShareLock);
}

/*
 * The caller has just checkpointed this flow, so that its pending rows, blobs
 * and position row belong together.  The old heap goes as with REFRESH of any
 * materialized view: with its relfilenode.  While the new one is filled the view
 * can be read, but not written to: nobody else can be at it.
 *
 * Windows that stay (kept_through) are final in the old generation; their rows
 * are taken over, and so are the late events of that time that it has written,
 * so its last checkpoint must be of the same position.  If it has failed before
 * that, events that came for those windows since are counted nowhere as late.
 */
bool
weir_flow_swap(WeirFlow *flow)
{
	WeirCheckpoint *c = &flow->priv->checkpoint;
	WeirPositionRow row = c->row;
	ItemPointerData tid = c->tid;
	WeirPositionRow old;
	WeirSecure secure;
	Relation view;
	Relation heap;
	Oid new_heap;
	Oid owner;
	char persistence;
	bool has_old;

	Assert(!row.answering && ItemPointerIsValid(&tid));
	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	PushActiveSnapshot(GetTransactionSnapshot());
	LockRelationOid(flow->view, ExclusiveLock);
	view = try_relation_open(flow->view, NoLock);
	if (view == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_TABLE),
				 errmsg("continuous view with OID %u does not exist any more",
						flow->view)));
	has_old = weir_catalog_position_get(flow->view, -1, NULL, &old, NULL);
	check_kept_windows(flow, has_old ? &old : NULL);
	owner = view->rd_rel->relowner;
	persistence = view->rd_rel->relpersistence;
	weir_flow_replan(flow);
	weir_late_swap(flow->priv->late_events, flow->plan, flow->generation,
				   flow->kept_through);
	weir_secure_enter(&secure, owner, flow->options->settings);
	new_heap = make_new_heap(flow->view, view->rd_rel->reltablespace,
							 view->rd_rel->relam, persistence, ExclusiveLock);
	heap = table_open(new_heap, NoLock);
	if (flow->kept_through != PG_INT64_MIN)
		row.final_rows += keep_rows(flow->plan, view, flow->kept_through, heap);
	relation_close(view, NoLock);
	fill_heap(flow, heap);
	table_close(heap, NoLock);

	/* readers were let in until here */
	LockRelationOid(flow->view, AccessExclusiveLock);
	weir_debug_point("swap-locked");
	finish_heap_swap(flow->view, new_heap, false, false, true, true, RecentXmin,
					 ReadNextMultiXactId(), persistence);
	weir_secure_leave(&secure);
	weir_debug_point("swap-filled");

	if (has_old)
		weir_catalog_forget_view(flow->view, old.generation);
	weir_catalog_forget_pending(flow->view, flow->generation);
	row.answering = true;
	if (!weir_catalog_position_put(&row, &tid))
	{
		AbortCurrentTransaction();
		return false;
	}
	swap_at_commit.from = weir_shmem_view(flow->view);
	swap_at_commit.to = flow->v;
	PopActiveSnapshot();
	weir_debug_point("swap-commit");
	CommitTransactionCommand();
	/* known before anything may raise, as in a checkpoint */
	c->row = row;
	c->tid = tid;
	flow->kept_through = PG_INT64_MIN;
	pg_atomic_write_u64(&flow->v->final_rows, row.final_rows);
	weir_debug_point("swap-committed");
	return true;
}


/* ---------- dumps ---------- */

typedef struct Dumping
{
	WeirFlow *flow;
	WeirTextsCallback callback;
	void *arg;
	MemoryContext cxt; /* of a group */
} Dumping;

/* WeirGroupCallback */
static void
group_out(const WeirGroup *g, void *arg)
{
	Dumping *d = arg;
	WeirFlowPrivate *p = d->flow->priv;
	WeirTexts texts = {0};
	MemoryContext old = MemoryContextSwitchTo(d->cxt);

	CHECK_FOR_INTERRUPTS();
	weir_texts_add_int(&texts, g->pane);
	weir_keys_out(p->keys, g->key, &texts);
	if (p->spans)
		weir_spans_out(p->spans, g->state, g->statelen, &texts);
	else
		weir_aggs_out(p->aggs, g->state, g->statelen, &texts);
	d->callback(&texts, d->arg);
	MemoryContextSwitchTo(old);
	MemoryContextReset(d->cxt);
}

void
weir_flow_out(WeirFlow *flow, WeirTextsCallback callback, void *arg)
{
	Dumping d = {.flow = flow, .callback = callback, .arg = arg};

	d.cxt = AllocSetContextCreate(CurrentMemoryContext, "weir group texts",
								  ALLOCSET_DEFAULT_SIZES);
	weir_state_walk(flow->state, PG_INT64_MAX, 0, group_out, &d);
	MemoryContextDelete(d.cxt);
}

char *
weir_flow_dump_layout(const WeirFlow *flow)
{
	return weir_groups_dump_layout(flow->priv->aggs, flow->priv->keys);
}

void
weir_flow_late_out(WeirFlow *flow, WeirTextsCallback callback, void *arg)
{
	weir_late_out(flow->priv->late_events, flow->plan, callback, arg);
}

struct WeirGroupReader
{
	const WeirViewPlan *plan;
	EState *estate;
	WeirAggs *aggs;
	WeirKeys *keys;
	WeirSpans *spans; /* NULL: windows are panes */
};

WeirGroupReader *
weir_group_reader_create(const WeirViewPlan *plan)
{
	WeirGroupReader *r = palloc0(sizeof(WeirGroupReader));

	r->plan = plan;
	r->estate = CreateExecutorState();
	r->aggs = weir_aggs_create(plan->aggs, r->estate, plan->merged);
	r->keys = weir_keys_create(plan);
	if (weir_window_is_span(&plan->window))
		r->spans = weir_spans_create(plan, r->aggs);
	return r;
}

char *
weir_group_reader_layout(WeirGroupReader *r, bool dump)
{
	List *relations = NIL;

	return dump ? weir_groups_dump_layout(r->aggs, r->keys)
				: weir_groups_layout(r->aggs, r->keys, &relations);
}

bool
weir_group_reader_any_serial(WeirGroupReader *r)
{
	return weir_aggs_any_serial(r->aggs);
}

void
weir_group_reader_in(WeirGroupReader *r, WeirTexts *from, WeirGroup *g)
{
	bool windows = r->plan->window.kind != WEIR_WINDOW_NONE;

	MemSet(g, 0, sizeof(*g));
	g->pane = weir_texts_next_int(from, PG_INT64_MIN, PG_INT64_MAX);
	if (r->spans ? g->pane != WEIR_PANE_SPANS
				 : (g->pane == WEIR_PANE_NONE) == windows ||
					   g->pane >= WEIR_PANE_SPANS)
		weir_texts_are_bad("a window that the view cannot have");
	g->key = weir_keys_in(r->keys, from, &g->keylen);
	g->state = r->spans ? weir_spans_in(r->spans, from, &g->statelen)
						: weir_aggs_in(r->aggs, from, &g->statelen);
	weir_texts_end(from);
}
