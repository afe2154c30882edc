/*-------------------------------------------------------------------------
 *
 * stream.c
 *	  The table access method "stream": INSERT takes a backend's rows and
 *	  hands them to the log in chunks, publishes at commit; SELECT scans the
 *	  retained events.
 *
 * Relies on log.c for all that touches the file.  Guarantees that the rows of
 * a transaction are in the log, with its record, before it commits, or not at
 * all; that an own read sees exactly the own rows its snapshot may see.
 *
 * One Entry per (relation, file) written in the transaction; under it a stack
 * of Levels, one per open subtransaction that wrote; under a level its Pending
 * builders in the order of their chunk numbers, the last of them open.  The
 * chunk number is taken when a builder gets its first row, so a chunk written
 * late keeps its place in the log's order.
 *
 *	COMMIT_SUB	the level joins its parent's: counts are added, builders
 *				appended; the open ones are merged if no chunk lies between.
 *	ABORT_SUB	the level is dropped.
 *
 * Rows are written only by the level they belong to, while it is the current
 * one: written by a child they would vanish with it.  So a scan inside a
 * subtransaction cannot flush its ancestors' rows; it takes an image of them
 * (Extra) and leaves out the chunk that they become later.
 *
 * Command ids.  A chunk may hold rows of several commands (ten single-row
 * INSERTs make one chunk).  It is stamped with the first; until the transaction
 * ends, `mixed` tells which of its rows came when, and scans show a prefix.
 * Parallel workers do not know this: see prepare_parallel.
 *
 * TIDs.  A row of a chunk at (block, line) is (block, line << 8 | row + 1), with
 * the ninth bit of line, if set, moved into the block.  A row that is inserted
 * gets a virtual TID, (VIRTUAL_BLOCK + n, m), which tuple_fetch_row_version
 * resolves until the end of the transaction where there are AFTER ROW triggers.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/heapam.h"
#include "access/multixact.h"
#include "access/parallel.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/transam.h"
#include "access/tsmapi.h"
#include "access/twophase.h"
#include "access/visibilitymap.h"
#include "access/xact.h"
#include "catalog/pg_am.h"
#include "catalog/pg_inherits.h"
#include "catalog/pg_type.h"
#include "commands/vacuum.h"
#include "common/int.h"
#include "executor/executor.h"
#include "executor/nodeCustom.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "nodes/extensible.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/clauses.h"
#include "optimizer/cost.h"
#include "optimizer/optimizer.h"
#include "optimizer/pathnode.h"
#include "optimizer/paths.h"
#include "optimizer/planner.h"
#include "optimizer/restrictinfo.h"
#include "parser/parsetree.h"
#include "pgstat.h"
#include "storage/bufmgr.h"
#include "storage/lmgr.h"
#include "storage/lock.h"
#include "storage/proc.h"
#include "storage/procarray.h"
#include "utils/builtins.h"
#include "utils/date.h"
#include "utils/hsearch.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/resowner.h"
#include "utils/ruleutils.h"
#include "utils/snapmgr.h"
#include "utils/spccache.h"
#include "utils/timestamp.h"
#include "utils/typcache.h"

#include "catalog.h"
#include "chunk.h"
#include "compat.h"
#include "debug.h"
#include "guc.h"
#include "log.h"
#include "log_reader.h"
#include "log_trim.h"
#include "order.h"
#include "plan.h"
#include "runs.h"
#include "shmem.h"
#include "stream.h"
#include "window.h"

/*
 * Virtual TIDs: above any block a stream can reach in practice.  A page may have
 * more lines (MaxHeapTuplesPerPage, dead ones kept until VACUUM) than eight bits
 * count: HIGH_LINE is added to the block of those.  A row of an Extra is (its
 * chunk number + EXTRA_BLOCK, row + 1).
 */
#define VIRTUAL_BLOCK	  ((BlockNumber) 0x80000000)
#define HIGH_LINE		  ((BlockNumber) 0x40000000)
#define EXTRA_BLOCK		  ((BlockNumber) 0xE0000000)
#define VIRTUAL_PER_BLOCK 2000

/* So many closed builders may wait for their level to be current. */
#define MAX_WAITING 2000

/* From this row on (until the next range) rows came with this command id. */
typedef struct CidRange
{
	int first;
	CommandId cid;
} CidRange;

/* Rows first.. of a builder or chunk have virtual numbers number.. */
typedef struct VirtualRange
{
	uint64 number;
	int n;
	int row;
	ItemPointerData tid; /* of the chunk, once written */
} VirtualRange;

typedef struct Pending
{
	struct Pending *next; /* younger */
	WeirChunkBuilder *builder;
	TupleDesc desc;
	AttrNumber event_attno;
	uint32 chunk_no;
	bool closed; /* takes no more rows */
	int ncids;
	int cid_space;
	CidRange *cids;
	int nvirtual;
	int virtual_space;
	VirtualRange *virtuals;
} Pending;

typedef struct Level
{
	struct Level *parent;
	SubTransactionId subid;
	Pending *first;
	Pending *last;
	/* written by this level and its committed children */
	uint32 last_chunk_no;
	uint32 nchunks;
	uint64 nrows;
	uint64 nbytes;
	TimestampTz max_time;
	int nplaces;
	WeirPlace places[WEIR_MAX_PLACES];
	/* record asked for without rows */
	bool beats;
	TimestampTz heartbeat;
	WeirRecordKind beat_kind;
} Level;

/* A written chunk whose rows came with several command ids. */
typedef struct Mixed
{
	ItemPointerData tid; /* hash key */
	int ncids;
	CidRange *cids;
} Mixed;

typedef struct Entry
{
	struct Entry *next;
	Oid relid;
	RelFileNumber filenumber;
	Level *level;
	uint32 next_chunk_no;
	WeirStreamShared *shared;
	bool recorded; /* its record is written: no more rows */

	/* about the statement at work, renewed when its command id changes */
	CommandId cid;
	bool fresh; /* false: look again whatever the cid */
	TupleDesc desc;
	AttrNumber event_attno;
	bool event_is_timestamptz;
	int64 max_future;
	TimestampTz now;
	bool keeps_tids; /* AFTER ROW triggers come back by TID */
	int nvarlena;
	int *varlena; /* 0-based columns */

	HTAB *mixed;
	uint64 next_virtual;
	int nwritten; /* virtual ranges of written chunks, sorted */
	int written_space;
	VirtualRange *written;

	/* the chunk fetched last by a virtual TID, if valid */
	ItemPointerData fetched;
	WeirChunkReader *fetch_reader;
	char *fetch_image;

	/* adoption of a prepared transaction */
	bool adopts;
	WeirTxn adopted;
	bool reserved; /* our own place in prepared[] */
} Entry;

bool weir_stream_in_worker = false;

static WeirSlice *current_slice = NULL;

/* By places of prepared[]: was still prepared when this transaction, which ends
 * one, began; in TopTransactionContext. */
static bool *was_prepared = NULL;

/* This transaction; all in xact_cxt, a child of TopTransactionContext. */
static MemoryContext xact_cxt = NULL;
static MemoryContext row_cxt = NULL;
static Entry *entries = NULL;

/* What TRUNCATE has removed in this transaction, the latest first. */
typedef struct Removed
{
	Oid relid;
	TimestampTz max_time;
} Removed;

static List *removed = NIL; /* in TopTransactionContext */
static Entry *last_entry = NULL;
static int nwaiting = 0; /* builders in all levels */
static WeirRingEntry *publications = NULL;
static int npublications = 0;

static TableAmRoutine stream_methods;

static planner_hook_type prev_planner = NULL;
static ExecutorStart_hook_type prev_executor_start = NULL;
static set_rel_pathlist_hook_type prev_set_rel_pathlist = NULL;

pg_noreturn static void
refuse(Relation rel, const char *what)
{
	ereport(
		ERROR,
		(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
		 errmsg("cannot %s stream \"%s\"", what, RelationGetRelationName(rel)),
		 errdetail("Streams are append-only."),
		 errhint(
			 "Insert a new event instead, or let retention remove old ones.")));
}

pg_noreturn static void
refuse_on_conflict(Relation rel)
{
	ereport(ERROR,
			(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
			 errmsg("cannot use ON CONFLICT on stream \"%s\"",
					RelationGetRelationName(rel)),
			 errdetail("Streams have no unique constraints."),
			 errhint("Leave out ON CONFLICT, or count each event once in a "
					 "view with DISTINCT aggregates.")));
}

pg_noreturn static void
refuse_lock(Relation rel)
{
	ereport(ERROR, (errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					errmsg("cannot lock rows of stream \"%s\"",
						   RelationGetRelationName(rel)),
					errdetail("Events never change."),
					errhint("Leave out FOR UPDATE; FOR SHARE is accepted.")));
}

pg_noreturn static void
refuse_sample(Relation rel)
{
	ereport(ERROR, (errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					errmsg("cannot use TABLESAMPLE on stream \"%s\"",
						   RelationGetRelationName(rel)),
					errdetail("Events are stored in chunks, not one by one."),
					errhint("Use a condition such as WHERE random() < 0.01.")));
}

/* The name that a user knows: not that of ALTER TABLE's transient copy. */
static const char *
stream_name(Relation rel)
{
	return OidIsValid(rel->rd_rel->relrewrite)
			   ? get_rel_name(rel->rd_rel->relrewrite)
			   : RelationGetRelationName(rel);
}

static bool
is_stream(Relation rel)
{
	return rel->rd_tableam == &stream_methods;
}

/* ------------------------------------------------- entries and levels */

/* The rows of a table that ALTER TABLE rewrites are events of the original. */
static Oid
entry_relid(Relation rel)
{
	return OidIsValid(rel->rd_rel->relrewrite) ? rel->rd_rel->relrewrite
											   : RelationGetRelid(rel);
}

static Entry *
find_entry(Relation rel)
{
	Oid relid = entry_relid(rel);
	Entry *prev = NULL;

	if (last_entry != NULL && last_entry->relid == relid &&
		last_entry->filenumber == weir_rel_number(rel))
		return last_entry;
	for (Entry *e = entries; e != NULL; prev = e, e = e->next)
	{
		if (e->relid != relid || e->filenumber != weir_rel_number(rel))
			continue;
		/* to the front: partitions are written in runs */
		if (prev != NULL)
		{
			prev->next = e->next;
			e->next = entries;
			entries = e;
		}
		last_entry = e;
		return e;
	}
	return NULL;
}

static WeirStreamShared *
stream_shared(Oid relid)
{
	static WeirStreamShared *last = NULL;

	if (last != NULL && last->in_use && last->stream == relid &&
		last->db == MyDatabaseId)
		return last;
	last = weir_shmem_stream(relid, false);
	if (last == NULL)
		last = weir_shmem_stream(relid, true);
	return last;
}

static Entry *
get_entry(Relation rel)
{
	Entry *e = find_entry(rel);

	if (e != NULL)
		return e;
	weir_debug_point("stream-entry");
	weir_shmem_require();
	if (xact_cxt == NULL)
	{
		xact_cxt = AllocSetContextCreate(TopTransactionContext, "weir stream",
										 ALLOCSET_DEFAULT_SIZES);
		row_cxt =
			AllocSetContextCreate(xact_cxt, "weir row", ALLOCSET_DEFAULT_SIZES);
	}
	e = MemoryContextAllocZero(xact_cxt, sizeof(Entry));
	e->relid = entry_relid(rel);
	e->filenumber = weir_rel_number(rel);
	e->shared = stream_shared(e->relid);
	e->next = entries;
	entries = e;
	last_entry = e;
	return e;
}

static Level *
current_level(Entry *e)
{
	SubTransactionId subid = GetCurrentSubTransactionId();
	Level *level;

	if (e->level != NULL && e->level->subid == subid)
		return e->level;
	level = MemoryContextAllocZero(xact_cxt, sizeof(Level));
	level->parent = e->level;
	level->subid = subid;
	level->max_time = WEIR_NO_TIME;
	level->heartbeat = WEIR_NO_TIME;
	e->level = level;
	return level;
}

/*
 * A table that ALTER TABLE turns into a stream has its options only afterwards;
 * ddl.c has given them to the transient copy, which is what is written to.
 */
static void
refresh_entry(Entry *e, Relation rel, CommandId cid)
{
	const WeirStreamOptions *options;
	TupleDesc desc = RelationGetDescr(rel);
	MemoryContext old = MemoryContextSwitchTo(xact_cxt);

	options = weir_catalog_stream_options(rel);
	e->event_attno = options->event_attno;
	e->event_is_timestamptz = options->event_is_timestamptz;
	e->max_future = options->max_future;

	/* ALTER TABLE may have changed the columns since */
	if (e->desc == NULL || !equalTupleDescs(e->desc, desc))
	{
		e->desc = CreateTupleDescCopyConstr(desc);
		e->varlena = palloc(sizeof(int) * Max(desc->natts, 1));
		e->nvarlena = 0;
		for (int i = 0; i < desc->natts; i++)
			if (TupleDescAttr(desc, i)->attlen == -1)
				e->varlena[e->nvarlena++] = i;
		e->fetch_reader = NULL; /* of the old columns */
	}
	e->keeps_tids = rel->trigdesc && rel->trigdesc->trig_insert_after_row;
	e->now = weir_now();
	e->cid = cid;
	e->fresh = true;
	MemoryContextSwitchTo(old);
}

/* --------------------------------------------------------------- writing */

static void
remember_mixed(Entry *e, ItemPointer tid, Pending *p)
{
	Mixed *m;

	if (e->mixed == NULL)
	{
		HASHCTL ctl;

		ctl.keysize = sizeof(ItemPointerData);
		ctl.entrysize = sizeof(Mixed);
		ctl.hcxt = xact_cxt;
		e->mixed = hash_create("weir mixed chunks", 64, &ctl,
							   HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	}
	/* a page's line may be used again after an aborted subtransaction */
	m = hash_search(e->mixed, tid, HASH_ENTER, NULL);
	m->ncids = p->ncids;
	m->cids = MemoryContextAlloc(xact_cxt, p->ncids * sizeof(CidRange));
	memcpy(m->cids, p->cids, p->ncids * sizeof(CidRange));
}

/* written[] stays sorted by number: mostly they come in that order. */
static void
remember_written(Entry *e, ItemPointer tid, Pending *p)
{
	for (int i = 0; i < p->nvirtual; i++)
	{
		int at;

		if (e->nwritten == e->written_space)
		{
			e->written_space = e->written_space ? e->written_space * 2 : 64;
			e->written =
				e->written
					? repalloc_huge(e->written,
									e->written_space * sizeof(VirtualRange))
					: MemoryContextAlloc(xact_cxt, e->written_space *
													   sizeof(VirtualRange));
		}
		at = e->nwritten;
		while (at > 0 && e->written[at - 1].number > p->virtuals[i].number)
			at--;
		memmove(&e->written[at + 1], &e->written[at],
				(e->nwritten - at) * sizeof(VirtualRange));
		e->written[at] = p->virtuals[i];
		e->written[at].tid = *tid;
		e->nwritten++;
	}
}

static void
free_pending(Pending *p)
{
	if (p->builder)
		weir_chunk_builder_free(p->builder);
	if (p->cids)
		pfree(p->cids);
	if (p->virtuals)
		pfree(p->virtuals);
	pfree(p);
	nwaiting--;
}

/*
 * Write an image and count it at the level, which is the current one.  keep:
 * somebody of this transaction may still look at it.
 */
static void
write_pending(Entry *e, Level *level, Relation rel, Pending *p,
			  const WeirRecord *record)
{
	FullTransactionId xid = GetTopFullTransactionId();
	MemoryContext old = MemoryContextSwitchTo(row_cxt);
	int nrows = weir_chunk_builder_nrows(p->builder);
	TimestampTz max_time = weir_chunk_builder_max_time(p->builder);
	CommandId cid = p->ncids > 0 ? p->cids[0].cid : GetCurrentCommandId(true);
	ItemPointerData tid;
	Size len;
	char *image;

	weir_debug_point("stream_write");
	image = weir_chunk_builder_finish(p->builder, xid, p->chunk_no, record,
									  weir_compression == WEIR_COMPRESSION_LZ4,
									  &len);
	tid = weir_log_append(rel, image, len, cid, 0);
	MemoryContextSwitchTo(old);
	MemoryContextReset(row_cxt);

	level->nchunks++;
	level->nrows += nrows;
	level->nbytes += len;
	level->max_time = Max(level->max_time, max_time);
	level->last_chunk_no = Max(level->last_chunk_no, p->chunk_no);
	weir_places_add(level->places, &level->nplaces, &tid);
	if (record == NULL && p->ncids > 1)
		remember_mixed(e, &tid, p);
	if (p->nvirtual > 0)
		remember_written(e, &tid, p);
}

/* Write out a level's builders; it must be the current one. */
static void
flush_level(Entry *e, Level *level, Relation rel, bool closed_only)
{
	Pending *p;

	Assert(level->subid == GetCurrentSubTransactionId());
	while ((p = level->first) != NULL && (p->closed || !closed_only))
	{
		if (weir_chunk_builder_nrows(p->builder) > 0)
			write_pending(e, level, rel, p, NULL);
		level->first = p->next;
		if (level->first == NULL)
			level->last = NULL;
		free_pending(p);
	}
}

/* What the current level of this relation holds; not its ancestors'. */
static void
flush_relation(Relation rel)
{
	Entry *e;

	if (entries == NULL || IsParallelWorker())
		return;
	e = find_entry(rel);
	if (e != NULL && e->level != NULL && e->level->first != NULL &&
		e->level->subid == GetCurrentSubTransactionId())
		flush_level(e, e->level, rel, false);
}

/*
 * The relation of an entry if it still is what was written to: not dropped,
 * truncated, or turned into something else since.
 */
static Relation
open_entry(Entry *e)
{
	Relation rel = try_relation_open(e->relid, RowExclusiveLock);

	if (rel == NULL)
		return NULL;
	if (rel->rd_rel->relkind == RELKIND_RELATION && is_stream(rel) &&
		weir_rel_number(rel) == e->filenumber)
		return rel;
	relation_close(rel, NoLock);
	return NULL;
}

void
weir_stream_flush(Oid relid)
{
	if (IsParallelWorker())
		return;
	for (Entry *e = entries; e != NULL; e = e->next)
	{
		Relation rel;

		if ((OidIsValid(relid) && e->relid != relid) || e->level == NULL ||
			e->level->first == NULL ||
			e->level->subid != GetCurrentSubTransactionId())
			continue;
		rel = open_entry(e);
		if (rel == NULL)
			continue;
		flush_level(e, e->level, rel, false);
		relation_close(rel, NoLock);
	}
}

bool
weir_stream_pending(Relation rel)
{
	Entry *e = entries != NULL ? find_entry(rel) : NULL;

	for (Level *l = e ? e->level : NULL; l != NULL; l = l->parent)
		for (Pending *p = l->first; p != NULL; p = p->next)
			if (weir_chunk_builder_nrows(p->builder) > 0)
				return true;
	return false;
}

static Pending *
add_pending(Entry *e, Level *level)
{
	MemoryContext old = MemoryContextSwitchTo(xact_cxt);
	Pending *p = palloc0(sizeof(Pending));

	p->desc = e->desc;
	p->event_attno = e->event_attno;
	p->builder = weir_chunk_builder_create(p->desc, p->event_attno);
	p->chunk_no = ++e->next_chunk_no;
	if (level->last)
		level->last->next = p;
	else
		level->first = p;
	level->last = p;
	nwaiting++;
	MemoryContextSwitchTo(old);
	return p;
}

/* The builder that takes this level's next row. */
static Pending *
open_pending(Entry *e, Level *level, Relation rel)
{
	Pending *p = level->last;

	if (p != NULL && !p->closed &&
		(p->desc != e->desc || p->event_attno != e->event_attno))
		p->closed = true;
	if (level->first != NULL && level->first->closed)
		flush_level(e, level, rel, true);
	p = level->last;
	return p != NULL ? p : add_pending(e, level);
}

static void
note_cid(Pending *p, int row, CommandId cid)
{
	if (p->ncids > 0 && p->cids[p->ncids - 1].cid == cid)
		return;
	if (p->ncids == p->cid_space)
	{
		p->cid_space = p->cid_space ? p->cid_space * 2 : 4;
		p->cids = p->cids ? repalloc(p->cids, p->cid_space * sizeof(CidRange))
						  : MemoryContextAlloc(xact_cxt,
											   p->cid_space * sizeof(CidRange));
	}
	p->cids[p->ncids].first = row;
	p->cids[p->ncids].cid = cid;
	p->ncids++;
}

static void
note_virtual(Pending *p, int row, uint64 number, int n)
{
	VirtualRange *v;

	if (p->nvirtual > 0)
	{
		v = &p->virtuals[p->nvirtual - 1];
		if (v->number + v->n == number && v->row + v->n == row)
		{
			v->n += n;
			return;
		}
	}
	if (p->nvirtual == p->virtual_space)
	{
		p->virtual_space = p->virtual_space ? p->virtual_space * 2 : 4;
		p->virtuals =
			p->virtuals
				? repalloc(p->virtuals, p->virtual_space * sizeof(VirtualRange))
				: MemoryContextAlloc(xact_cxt,
									 p->virtual_space * sizeof(VirtualRange));
	}
	v = &p->virtuals[p->nvirtual++];
	v->number = number;
	v->row = row;
	v->n = n;
	ItemPointerSetInvalid(&v->tid);
}

static void
check_event_time(Entry *e, Relation rel, Datum value, bool isnull)
{
	TimestampTz t;
	char *column;

	if (likely(!isnull))
	{
		t = DatumGetTimestampTz(value);
		if (likely(!TIMESTAMP_NOT_FINITE(t)))
		{
			if (!e->event_is_timestamptz || e->max_future == PG_INT64_MAX ||
				likely(t <= e->now))
				return;
			if (t - e->now <= e->max_future)
				return;
			/* a COPY may run for days: is it still the future? */
			e->now = weir_now();
			if (t <= e->now || t - e->now <= e->max_future)
				return;
		}
	}

	column = NameStr(TupleDescAttr(e->desc, e->event_attno - 1)->attname);
	if (isnull)
		ereport(
			ERROR,
			(errcode(ERRCODE_NOT_NULL_VIOLATION),
			 errmsg(
				 "null value in column \"%s\" of stream \"%s\" violates event-time constraint",
				 column, stream_name(rel)),
			 errdetail("It is the event time of the stream."),
			 errhint("Give each event its time; a DEFAULT of "
					 "clock_timestamp() makes it that of the insertion."),
			 errtablecol(rel, e->event_attno)));
	if (TIMESTAMP_NOT_FINITE(t))
		ereport(
			ERROR,
			(errcode(ERRCODE_DATETIME_VALUE_OUT_OF_RANGE),
			 errmsg(
				 "event time in column \"%s\" of stream \"%s\" must be finite",
				 column, stream_name(rel)),
			 errhint("Give the event its time; to end the stream, use "
					 "weir.advance_watermark()."),
			 errtablecol(rel, e->event_attno)));
	if (e->shared)
		pg_atomic_fetch_add_u64(&e->shared->refused_future, 1);
	ereport(
		ERROR,
		(errcode(ERRCODE_DATETIME_VALUE_OUT_OF_RANGE),
		 errmsg("event time %s of stream \"%s\" is too far in the future",
				timestamptz_to_str(t), stream_name(rel)),
		 errdetail(
			 "Column \"%s\" may be ahead of the clock by the stream's max_future at most.",
			 column),
		 errhint(
			 "Correct the event, or raise the option max_future of the stream."),
		 errtablecol(rel, e->event_attno)));
}

static void
insert_row(Entry *e, Level *level, Relation rel, TupleTableSlot *slot,
		   CommandId cid)
{
	Datum *values;
	bool *nulls;
	bool flattened = false;
	Pending *p;
	int row;
	uint64 number;

	slot_getallattrs(slot);
	values = slot->tts_values;
	nulls = slot->tts_isnull;
	if (e->event_attno > 0)
		check_event_time(e, rel, values[e->event_attno - 1],
						 nulls[e->event_attno - 1]);
	for (int i = 0; i < e->nvarlena; i++)
	{
		int a = e->varlena[i];

		if (!nulls[a] && VARATT_IS_EXTERNAL(DatumGetPointer(values[a])))
		{
			MemoryContext old = MemoryContextSwitchTo(row_cxt);
			int natts = e->desc->natts;

			values = palloc(natts * sizeof(Datum));
			memcpy(values, slot->tts_values, natts * sizeof(Datum));
			nulls = palloc(natts * sizeof(bool));
			memcpy(nulls, slot->tts_isnull, natts * sizeof(bool));
			flattened = weir_chunk_flatten(e->desc, values, nulls);
			MemoryContextSwitchTo(old);
			break;
		}
	}

	p = level->last;
	if (unlikely(p == NULL || p->closed))
		p = open_pending(e, level, rel);
	if (unlikely(!weir_chunk_builder_add(p->builder, values, nulls)))
	{
		/* row_cxt holds the flattened row: write by a child of it */
		MemoryContext keep = row_cxt;

		row_cxt = AllocSetContextCreate(xact_cxt, "weir write",
										ALLOCSET_DEFAULT_SIZES);
		p->closed = true;
		p = open_pending(e, level, rel);
		/* after an error the child serves as well, until the end */
		MemoryContextDelete(row_cxt);
		row_cxt = keep;
		if (!weir_chunk_builder_add(p->builder, values, nulls))
			elog(ERROR, "unexpected: a row does not fit into an empty chunk");
	}
	if (flattened)
		MemoryContextReset(row_cxt);

	row = weir_chunk_builder_nrows(p->builder) - 1;
	note_cid(p, row, cid);
	number = e->next_virtual++;
	if (e->keeps_tids)
		note_virtual(p, row, number, 1);
	ItemPointerSet(&slot->tts_tid,
				   VIRTUAL_BLOCK + (BlockNumber) (number / VIRTUAL_PER_BLOCK),
				   number % VIRTUAL_PER_BLOCK + 1);
	slot->tts_tableOid = RelationGetRelid(rel);
}

/*
 * No rows for a stream that has ended.  This looks once a statement: what was
 * inserted before the end was seen is in the log, and late.
 */
static void
check_end(Entry *e, Relation rel)
{
	uint32 unknown = WEIR_END_UNKNOWN;
	TimestampTz at;

	if (likely(e->shared != NULL &&
			   pg_atomic_read_u32(&e->shared->ended) == WEIR_END_NO))
		return;
	/* this transaction may have truncated it */
	if (!weir_catalog_stream_end(e->relid, &at))
	{
		/* not so if its end was published meanwhile */
		if (e->shared != NULL)
			(void) pg_atomic_compare_exchange_u32(&e->shared->ended, &unknown,
												  WEIR_END_NO);
		return;
	}
	ereport(ERROR, (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					errmsg("stream \"%s\" has ended", stream_name(rel)),
					errdetail("Its watermark was set to infinity at %s.",
							  timestamptz_to_str(at)),
					errhint("TRUNCATE it to begin anew.")));
}

static void
insert_rows(Relation rel, TupleTableSlot **slots, int n, CommandId cid)
{
	Entry *e = get_entry(rel);
	Level *level;

	if (e->recorded)
		ereport(
			ERROR,
			(errcode(ERRCODE_INVALID_TRANSACTION_STATE),
			 errmsg(
				 "cannot insert into stream \"%s\" while its transaction commits",
				 RelationGetRelationName(rel))));
	if (e->cid != cid || !e->fresh)
	{
		refresh_entry(e, rel, cid);
		check_end(e, rel);
	}
	level = current_level(e);
	if (level->last != NULL)
		(void) open_pending(e, level, rel);
	for (int i = 0; i < n; i++)
		insert_row(e, level, rel, slots[i], cid);
	pgstat_count_heap_insert(rel, n);
}

static void
stream_tuple_insert(Relation rel, TupleTableSlot *slot, CommandId cid,
					int options, struct BulkInsertStateData *bistate)
{
	insert_rows(rel, &slot, 1, cid);
}

static void
stream_multi_insert(Relation rel, TupleTableSlot **slots, int n, CommandId cid,
					int options, struct BulkInsertStateData *bistate)
{
	insert_rows(rel, slots, n, cid);
}

/* ------------------------------------------------------- transaction end */

static TimestampTz
row_watermark(Relation rel, TimestampTz max_time, TimestampTz arrival)
{
	const WeirStreamOptions *o = weir_catalog_stream_options(rel);

	if (o->event_attno == 0)
		return WEIR_NO_TIME;
	return weir_watermark_of(max_time, arrival, o->watermark_delay,
							 o->event_is_timestamptz &&
								 o->max_future != PG_INT64_MAX);
}

static void
add_publication(Entry *e, const WeirTxn *txn)
{
	WeirRingEntry *p;

	publications = publications
					   ? repalloc(publications,
								  (npublications + 1) * sizeof(*publications))
					   : MemoryContextAlloc(xact_cxt, sizeof(*publications));
	p = &publications[npublications++];
	memset(p, 0, sizeof(*p));
	p->db = MyDatabaseId;
	p->stream = e->relid;
	p->filenumber = e->filenumber;
	p->slot = e->shared ? e->shared - weir_shared->streams : -1;
	p->txn = *txn;
}

/* Fold the record into the last builder; number 0 when preparing. */
static void
write_record(Entry *e, Relation rel, WeirNumber number, TimestampTz arrival)
{
	Level *l = e->level;
	WeirRecord record;
	WeirTxn txn;
	Pending *p;
	TimestampTz max_time;
	TimestampTz watermark;

	/* all but the last builder, which takes the record */
	while (l->first != NULL && l->first != l->last)
	{
		p = l->first;
		l->first = p->next;
		if (weir_chunk_builder_nrows(p->builder) > 0)
			write_pending(e, l, rel, p, NULL);
		free_pending(p);
	}
	p = l->last ? l->last : add_pending(e, l);
	max_time = Max(l->max_time, weir_chunk_builder_max_time(p->builder));
	memset(&record, 0, sizeof(record));
	record.number = number;
	record.arrival = arrival;
	watermark = row_watermark(rel, max_time, arrival);
	record.watermark = Max(watermark, l->heartbeat);
	record.nrows = l->nrows + weir_chunk_builder_nrows(p->builder);
	record.nchunks = l->nchunks + 1;
	record.kind = WEIR_RECORD_EVENTS;
	if (l->beats && (record.nrows == 0 || l->heartbeat > watermark))
		record.kind = l->beat_kind;
	write_pending(e, l, rel, p, &record);
	l->first = l->last = NULL;

	memset(&txn, 0, sizeof(txn));
	txn.number = number;
	txn.xid = GetTopFullTransactionId();
	txn.arrival = arrival;
	txn.watermark = record.watermark;
	txn.kind = record.kind;
	txn.nchunks = l->nchunks;
	txn.nrows = l->nrows;
	txn.nbytes = l->nbytes;
	txn.nplaces = l->nplaces;
	memcpy(txn.places, l->places, sizeof(txn.places));
	if (number != WEIR_NO_NUMBER)
		add_publication(e, &txn);
	else if (!weir_log_add_prepared(e->relid, e->filenumber, &txn))
		ereport(
			ERROR,
			(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
			 errmsg("too many prepared transactions wrote to streams"),
			 errhint("Finish some, or increase max_prepared_transactions.")));
	else
		e->reserved = true;
	if (number == WEIR_NO_NUMBER)
		weir_debug_point("prepare-recorded");
}

/* The chunk that gives a prepared transaction our number; of no txn. */
static void
write_adoption(Entry *e, Relation rel, WeirNumber number, TimestampTz arrival)
{
	WeirChunkBuilder *b = weir_chunk_builder_create(RelationGetDescr(rel), 0);
	WeirRecord record;
	Size len;
	char *image;

	memset(&record, 0, sizeof(record));
	record.number = number;
	record.arrival = arrival;
	record.watermark = WEIR_NO_TIME;
	record.adopts = e->adopted.xid;
	record.nchunks = 1;
	record.kind = WEIR_RECORD_ADOPT;
	image = weir_chunk_builder_finish(b, GetTopFullTransactionId(),
									  ++e->next_chunk_no, &record, false, &len);
	(void) weir_log_append(rel, image, len, GetCurrentCommandId(true), 0);
	weir_chunk_builder_free(b);
	e->adopted.number = number;
	e->adopted.arrival = arrival;
	add_publication(e, &e->adopted);
}

static void
pre_commit(bool prepare)
{
	for (Entry *e = entries; e != NULL; e = e->next)
	{
		Level *l = e->level;
		bool writes = l && (l->first || l->nchunks > 0 || l->beats);
		WeirNumber number = WEIR_NO_NUMBER;
		TimestampTz arrival = weir_now();
		Relation rel;

		e->recorded = true;
		if ((!writes && !e->adopts) || (rel = open_entry(e)) == NULL)
			continue;
		if (e->adopts && prepare)
			elog(ERROR, "cannot prepare a transaction that adopts another");
		(void) GetTopTransactionId();
		if (!prepare)
			number = weir_order_enter(&arrival);
		weir_debug_point("stream_pre_commit");
		if (e->adopts)
			write_adoption(e, rel, number, arrival);
		if (writes)
			write_record(e, rel, number, arrival);
		relation_close(rel, NoLock);
	}
	weir_order_cover();
}

static void
forget_transaction(void)
{
	xact_cxt = row_cxt = NULL;
	entries = last_entry = NULL;
	was_prepared = NULL;
	removed = NIL;
	nwaiting = 0;
	publications = NULL;
	npublications = 0;
}

static void
set_adopting(Oid stream, FullTransactionId xid, bool adopting)
{
	int n;
	WeirPrepared *p = weir_shmem_prepared(&n);

	LWLockAcquire(&weir_shared->directory_lock, LW_EXCLUSIVE);
	for (int i = 0; i < n; i++)
		if (p[i].in_use && p[i].db == MyDatabaseId && p[i].stream == stream &&
			FullTransactionIdEquals(p[i].xid, xid))
			p[i].adopting = adopting;
	LWLockRelease(&weir_shared->directory_lock);
}

static void
xact_callback(XactEvent event, void *arg)
{
	switch (event)
	{
		case XACT_EVENT_PRE_COMMIT:
			pre_commit(false);
			break;
		case XACT_EVENT_PRE_PREPARE:
			pre_commit(true);
			break;
		case XACT_EVENT_COMMIT:
			if (npublications > 0)
				weir_order_publish(publications, npublications);
			else if (weir_shared)
				weir_order_leave();
			for (Entry *e = entries; e != NULL; e = e->next)
			{
				if (e->adopts)
					weir_log_remove_prepared(e->relid, e->adopted.xid);
				if (e->shared && e->level)
				{
					pg_atomic_fetch_add_u64(&e->shared->rows_in,
											e->level->nrows);
					pg_atomic_fetch_add_u64(&e->shared->bytes_in,
											e->level->nbytes);
				}
			}
			forget_transaction();
			break;
		case XACT_EVENT_ABORT:
			if (weir_shared)
				weir_order_leave();
			for (Entry *e = entries; e != NULL; e = e->next)
			{
				if (e->adopts)
					set_adopting(e->relid, e->adopted.xid, false);
				if (e->reserved)
					weir_log_remove_prepared(e->relid,
											 GetTopFullTransactionIdIfAny());
			}
			forget_transaction();
			break;
		case XACT_EVENT_PREPARE:
		case XACT_EVENT_PARALLEL_COMMIT:
		case XACT_EVENT_PARALLEL_ABORT:
			if (event == XACT_EVENT_PREPARE && entries != NULL)
				weir_debug_point_critical("prepared");
			forget_transaction();
			break;
		default:
			break;
	}
}

/* The child's level joins its parent's. */
static void
join_parent(Level *child)
{
	Level *l = child->parent;
	Pending *last = l->last;

	for (int i = 0; i < child->nplaces; i++)
	{
		ItemPointerData tid;

		ItemPointerSet(&tid, child->places[i].first,
					   Max(child->places[i].offset, 1));
		weir_places_add(l->places, &l->nplaces, &tid);
		if (child->places[i].offset == 0)
		{
			l->places[l->nplaces - 1].last =
				Max(l->places[l->nplaces - 1].last, child->places[i].last);
			l->places[l->nplaces - 1].offset = 0;
		}
	}
	if (last && child->nchunks > 0)
		last->closed = true;
	l->nchunks += child->nchunks;
	l->nrows += child->nrows;
	l->nbytes += child->nbytes;
	l->max_time = Max(l->max_time, child->max_time);
	if (child->beats)
	{
		l->beats = true;
		l->heartbeat = Max(l->heartbeat, child->heartbeat);
		l->beat_kind = child->beat_kind;
	}
	if (child->first == NULL)
		return;
	if (last && !last->closed && child->first->desc == last->desc &&
		child->first->event_attno == last->event_attno)
	{
		Pending *p = child->first;
		int base = weir_chunk_builder_nrows(last->builder);

		if (weir_chunk_builder_merge(last->builder, p->builder))
		{
			for (int i = 0; i < p->ncids; i++)
				note_cid(last, base + p->cids[i].first, p->cids[i].cid);
			for (int i = 0; i < p->nvirtual; i++)
				note_virtual(last, base + p->virtuals[i].row,
							 p->virtuals[i].number, p->virtuals[i].n);
			last->closed = p->closed;
			child->first = p->next;
			free_pending(p);
		}
	}
	if (child->first == NULL)
		return;
	if (last)
	{
		last->closed = true;
		last->next = child->first;
	}
	else
		l->first = child->first;
	l->last = child->last;
}

static void
subxact_callback(SubXactEvent event, SubTransactionId subid,
				 SubTransactionId parent, void *arg)
{
	for (Entry *e = entries; e != NULL; e = e->next)
	{
		Level *l = e->level;

		e->fresh = false;
		/* an aborted chunk's place may be taken by another */
		ItemPointerSetInvalid(&e->fetched);
		if (l == NULL || l->subid != subid)
			continue;
		if (event == SUBXACT_EVENT_PRE_COMMIT_SUB && nwaiting > MAX_WAITING)
		{
			Relation rel = open_entry(e);

			if (rel)
			{
				flush_level(e, l, rel, false);
				relation_close(rel, NoLock);
			}
		}
		else if (event == SUBXACT_EVENT_COMMIT_SUB)
		{
			if (l->parent == NULL || l->parent->subid != parent)
			{
				l->subid = parent;
				continue;
			}
			join_parent(l);
			e->level = l->parent;
			pfree(l);
		}
		else if (event == SUBXACT_EVENT_ABORT_SUB)
		{
			while (l->first)
			{
				Pending *p = l->first;

				l->first = p->next;
				free_pending(p);
			}
			e->level = l->parent;
			pfree(l);
		}
	}
}

void
weir_stream_heartbeat(Relation rel, TimestampTz watermark, WeirRecordKind kind)
{
	Entry *e = get_entry(rel);
	Level *l;

	refresh_entry(e, rel, GetCurrentCommandId(true));
	l = current_level(e);
	l->beats = true;
	l->heartbeat = Max(l->heartbeat, watermark);
	l->beat_kind = kind;
}

/* A second: how long COMMIT PREPARED waits for others at the same stream. */
#define ADOPTION_TRIES	  100
#define ADOPTION_RETRY_US 10000

/* Is there a prepared transaction in this database that is older than this life? */
static bool
has_older_prepared(void)
{
	TransactionId boot_xid;

	LWLockAcquire(&weir_shared->order_lock, LW_SHARED);
	boot_xid = XidFromFullTransactionId(weir_shared->boot_xid);
	LWLockRelease(&weir_shared->order_lock);
	for (int i = 0; i < max_prepared_xacts; i++)
	{
		PGPROC *proc = &PreparedXactProcs[i];
		TransactionId xid = proc->xid;

		/* one that has ended leaves its xid there */
		if (TransactionIdIsValid(xid) && proc->databaseId == MyDatabaseId &&
			(!TransactionIdIsValid(boot_xid) ||
			 TransactionIdPrecedes(xid, boot_xid)) &&
			TransactionIdIsInProgress(xid))
			return true;
	}
	return false;
}

/* Relations of this database that prepared transactions may have written to. */
static List *
list_prepared_relations(void)
{
	LockData *locks = GetLockStatusData();
	List *result = NIL;

	for (int i = 0; i < locks->nelements; i++)
	{
		const LockInstanceData *lock = &locks->locks[i];

		if (lock->pid == 0 && lock->locktag.locktag_type == LOCKTAG_RELATION &&
			lock->locktag.locktag_field1 == MyDatabaseId &&
			(lock->holdMask & LOCKBIT_ON(RowExclusiveLock)) != 0)
			result =
				list_append_unique_oid(result, lock->locktag.locktag_field2);
	}
	list_sort(result, list_oid_cmp);
	return result;
}

static bool
is_collected(Oid relid)
{
	WeirStreamShared *s = weir_shmem_stream(relid, false);

	return s != NULL && pg_atomic_read_u32(&s->collected) != 0;
}

/*
 * Waiting for the relation for no time, and for who is at it already for a short
 * one: he may wait for the prepared transaction, whose end is up to us.
 */
static void
collect_prepared(Oid relid)
{
	Relation rel;

	if (!ConditionalLockRelationOid(relid, AccessShareLock))
		return;
	rel = try_relation_open(relid, NoLock);
	if (rel == NULL)
		return;
	if (rel->rd_rel->relkind == RELKIND_RELATION && is_stream(rel))
		for (int i = 0; i < ADOPTION_TRIES && !is_collected(relid); i++)
		{
			if (weir_log_collect_prepared(rel, false))
				break;
			CHECK_FOR_INTERRUPTS();
			pg_usleep(ADOPTION_RETRY_US);
		}
	relation_close(rel, NoLock);
}

/*
 * In a subtransaction that is rolled back, for the locks: the commit may wait for
 * a standby.  An error must not keep anybody from committing, as the transaction
 * is all right: a worker comes for it.
 */
static void
try_collect_prepared(Oid relid)
{
	MemoryContext cxt = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;
	ErrorData *volatile error = NULL;

	BeginInternalSubTransaction(NULL);
	PG_TRY();
	{
		collect_prepared(relid);
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(cxt);
		error = CopyErrorData();
		FlushErrorState();
	}
	PG_END_TRY();
	RollbackAndReleaseCurrentSubTransaction();
	MemoryContextSwitchTo(cxt);
	CurrentResourceOwner = owner;
	if (error == NULL)
		return;
	if (error->sqlerrcode == ERRCODE_QUERY_CANCELED)
		ReThrowError(error);
	ereport(LOG,
			(errcode(error->sqlerrcode),
			 errmsg("a prepared transaction is committed before its events "
					"are found"),
			 errdetail("%s.", error->message),
			 errhint("They count once a worker has found them.")));
	FreeErrorData(error);
}

static void
collect_older_prepared(void)
{
	List *relids = list_prepared_relations();
	ListCell *lc;

	foreach(lc, relids)
		if (weir_catalog_is_stream_oid(lfirst_oid(lc)) &&
			!is_collected(lfirst_oid(lc)))
			try_collect_prepared(lfirst_oid(lc));
	list_free(relids);
}

void
weir_stream_before_commit_prepared(void)
{
	int n;
	WeirPrepared *prepared;

	if (IsTransactionBlock() || GetCurrentTransactionNestLevel() != 1)
		return;
	if (has_older_prepared())
		collect_older_prepared();
	if (weir_shared->nprepared == 0)
		return;
	prepared = weir_shmem_prepared(&n);
	was_prepared = MemoryContextAllocZero(TopTransactionContext, n);
	for (int i = 0; i < n; i++)
	{
		WeirPrepared p;

		LWLockAcquire(&weir_shared->directory_lock, LW_SHARED);
		p = prepared[i];
		LWLockRelease(&weir_shared->directory_lock);
		was_prepared[i] =
			p.in_use && p.db == MyDatabaseId &&
			TransactionIdIsInProgress(XidFromFullTransactionId(p.xid));
	}
}

/* Has it ended, and does it wait for a number?  Sets *p. */
static bool
has_ended(const WeirPrepared *prepared, WeirPrepared *p)
{
	LWLockAcquire(&weir_shared->directory_lock, LW_SHARED);
	*p = *prepared;
	LWLockRelease(&weir_shared->directory_lock);
	return p->in_use && !p->adopting && p->db == MyDatabaseId &&
		   !TransactionIdIsInProgress(XidFromFullTransactionId(p->xid));
}

/* Who collects may be at it; wait: for a short time. */
static bool
lock_adoption(Oid stream, bool wait)
{
	for (int i = 0; !weir_log_lock_adoption(stream); i++)
	{
		if (!wait || i == ADOPTION_TRIES)
			return false;
		CHECK_FOR_INTERRUPTS();
		pg_usleep(ADOPTION_RETRY_US);
	}
	return true;
}

/* Nothing if its stream has got one by this transaction already. */
static void
adopt_one(WeirPrepared *prepared, bool wait)
{
	WeirPrepared p;
	Relation rel;
	Entry *e;
	Snapshot snapshot;
	bool visible;

	if (!has_ended(prepared, &p))
		return;
	if (wait)
		LockRelationOid(p.stream, RowExclusiveLock);
	else if (!ConditionalLockRelationOid(p.stream, RowExclusiveLock))
		return;
	rel = try_relation_open(p.stream, NoLock);
	if (rel == NULL || rel->rd_rel->relkind != RELKIND_RELATION ||
		!is_stream(rel))
	{
		if (rel)
			relation_close(rel, NoLock);
		weir_log_remove_prepared(p.stream, p.xid);
		return;
	}
	e = find_entry(rel);
	if ((e == NULL || (e->level == NULL && !e->adopts)) &&
		lock_adoption(p.stream, wait))
	{
		bool mine = false;

		snapshot = RegisterSnapshot(GetLatestSnapshot());
		if (weir_rel_number(rel) != p.filenumber)
			p.txn.nplaces = 0;
		/* of one that was rolled back all of the log would be read */
		visible = weir_log_did_commit(p.xid) &&
				  weir_log_txn_visible(rel, snapshot, &p.txn);
		UnregisterSnapshot(snapshot);
		if (!visible)
			weir_log_remove_prepared(p.stream, p.xid);
		else
		{
			/* who has marked it must be known to our end: raise before */
			e = get_entry(rel);
			LWLockAcquire(&weir_shared->directory_lock, LW_EXCLUSIVE);
			if (prepared->in_use && !prepared->adopting &&
				prepared->stream == p.stream &&
				FullTransactionIdEquals(prepared->xid, p.xid))
				mine = prepared->adopting = true;
			LWLockRelease(&weir_shared->directory_lock);
		}
		if (mine)
		{
			e->adopts = true;
			e->adopted = p.txn;
		}
	}
	relation_close(rel, NoLock);
}

bool
weir_stream_has_ended_at(int place)
{
	int n;
	WeirPrepared p;

	return has_ended(&weir_shmem_prepared(&n)[place], &p);
}

void
weir_stream_adopt_at(int place)
{
	int n;

	adopt_one(&weir_shmem_prepared(&n)[place], false);
}

/*
 * At most one transaction per stream, so that no two share a number; a worker
 * comes for the others.  The first are those that have ended in this one: what
 * others have left behind must not make them late.
 */
void
weir_stream_adopt_prepared(void)
{
	int n;
	WeirPrepared *prepared;

	if (weir_shared == NULL || weir_shared->nprepared == 0 ||
		GetCurrentTransactionNestLevel() != 1)
		return;
	prepared = weir_shmem_prepared(&n);
	for (int pass = was_prepared ? 0 : 1; pass <= 1; pass++)
		for (int i = 0; i < n; i++)
			if (was_prepared == NULL || was_prepared[i] == (pass == 0))
				adopt_one(&prepared[i], true);
}

/* ------------------------------------------------------------------ scan */

typedef struct Extra
{
	char *image;
	Size len;
	uint32 chunk_no;
	int limit;
} Extra;

typedef struct StreamScan
{
	TableScanDescData base;
	WeirLogScan *log;
	WeirChunkReader *reader;
	Entry *entry; /* own rows, or NULL */
	int nextras;
	Extra *extras;
	int at_extra; /* -1: in the log */
	bool idle;	  /* before the first or after the last */
	ItemPointerData tid;
	int row;
	int limit;	 /* rows of the chunk that may be seen */
	char *image; /* block-wise access */
	int nblock;
	int at_block;
	BlockNumber block;
	WeirBlockChunk blocks[MaxHeapTuplesPerPage];
} StreamScan;

/* Rows of a prefix that came before the snapshot's command. */
static int
visible_prefix(const CidRange *cids, int ncids, int nrows, Snapshot snapshot)
{
	if (snapshot == NULL || !IsMVCCSnapshot(snapshot))
		return nrows;
	for (int i = 0; i < ncids; i++)
		if (cids[i].cid >= snapshot->curcid)
			return Min(cids[i].first, nrows);
	return nrows;
}

static int
chunk_limit(Entry *e, ItemPointer tid, int nrows, Snapshot snapshot,
			FullTransactionId xid)
{
	Mixed *m;

	if (e == NULL || e->mixed == NULL ||
		!FullTransactionIdEquals(xid, GetTopFullTransactionIdIfAny()))
		return nrows;
	m = hash_search(e->mixed, tid, HASH_FIND, NULL);
	return m ? visible_prefix(m->cids, m->ncids, nrows, snapshot) : nrows;
}

/* Images of the rows that an ancestor has not written. */
static void
take_extras(StreamScan *s, Entry *e)
{
	for (Level *l = e->level; l != NULL; l = l->parent)
		for (Pending *p = l->first; p != NULL; p = p->next)
		{
			int n = weir_chunk_builder_nrows(p->builder);
			Datum *values = palloc(p->desc->natts * sizeof(Datum));
			bool *nulls = palloc(p->desc->natts * sizeof(bool));
			WeirChunkBuilder *b =
				weir_chunk_builder_create(p->desc, p->event_attno);
			Extra *x;

			for (int i = 0; i < n; i++)
			{
				weir_chunk_builder_get(p->builder, i, values, nulls);
				if (!weir_chunk_builder_add(b, values, nulls))
					elog(ERROR, "unexpected: copy of a chunk does not fit");
			}
			s->extras = s->extras ? repalloc(s->extras,
											 (s->nextras + 1) * sizeof(Extra))
								  : palloc(sizeof(Extra));
			x = &s->extras[s->nextras++];
			x->chunk_no = p->chunk_no;
			x->limit =
				visible_prefix(p->cids, p->ncids, n, s->base.rs_snapshot);
			x->image =
				weir_chunk_builder_finish(b, GetTopFullTransactionId(),
										  p->chunk_no, NULL, false, &x->len);
			weir_chunk_builder_free(b);
		}
}

static TableScanDesc
stream_scan_begin(Relation rel, Snapshot snapshot, int nkeys,
				  struct ScanKeyData *key, ParallelTableScanDesc parallel,
				  uint32 flags)
{
	StreamScan *s = palloc0(sizeof(StreamScan));

	flush_relation(rel);
	if (snapshot == NULL)
	{
		snapshot = RegisterSnapshot(GetLatestSnapshot());
		flags |= SO_TEMP_SNAPSHOT;
	}
	s->base.rs_rd = rel;
	s->base.rs_snapshot = snapshot;
	s->base.rs_flags = flags;
	s->base.rs_parallel = parallel;
	s->idle = true;
	s->at_extra = -1;
	s->block = InvalidBlockNumber;
	s->reader = weir_chunk_reader_create(RelationGetDescr(rel), NULL);
	if (entries != NULL && !IsParallelWorker())
	{
		s->entry = find_entry(rel);
		if (s->entry)
			take_extras(s, s->entry);
	}
	s->log = weir_log_scan_begin_parallel(rel, snapshot, parallel);
	return (TableScanDesc) s;
}

static void
stream_scan_end(TableScanDesc scan)
{
	StreamScan *s = (StreamScan *) scan;

	weir_log_scan_end(s->log);
	weir_chunk_reader_free(s->reader);
	if (scan->rs_flags & SO_TEMP_SNAPSHOT)
		UnregisterSnapshot(scan->rs_snapshot);
	pfree(s);
}

static void
stream_scan_rescan(TableScanDesc scan, struct ScanKeyData *key, bool set_params,
				   bool allow_strat, bool allow_sync, bool allow_pagemode)
{
	StreamScan *s = (StreamScan *) scan;

	weir_log_scan_rewind(s->log);
	s->idle = true;
	s->at_extra = -1;
	s->limit = 0;
	s->nblock = 0;
	s->block = InvalidBlockNumber;
}

static void
row_tid(ItemPointer tid, const ItemPointerData *chunk, int row)
{
	BlockNumber block = ItemPointerGetBlockNumber(chunk);
	OffsetNumber line = ItemPointerGetOffsetNumber(chunk);

	if (block >= EXTRA_BLOCK)
		ItemPointerSet(tid, block, row + 1);
	else
		ItemPointerSet(tid, (line & 0x100) ? block | HIGH_LINE : block,
					   ((line & 0xff) << 8) | (row + 1));
}

/* The other way round; returns the row, -1 if there can be none. */
static int
chunk_tid(ItemPointer chunk, const ItemPointerData *tid)
{
	BlockNumber block = ItemPointerGetBlockNumber(tid);
	OffsetNumber off = ItemPointerGetOffsetNumber(tid);
	OffsetNumber line = (off >> 8) | ((block & HIGH_LINE) ? 0x100 : 0);

	ItemPointerSet(chunk, block & ~HIGH_LINE, line);
	return line == 0 ? -1 : (off & 0xff) - 1;
}

bool
weir_stream_row_place(const ItemPointerData *tid, WeirRowPlace *place)
{
	BlockNumber block = ItemPointerGetBlockNumberNoCheck(tid);

	if (!ItemPointerIsValid(tid))
		return false;
	place->written = block < VIRTUAL_BLOCK;
	if (place->written)
	{
		place->row = chunk_tid(&place->chunk, tid);
		return place->row >= 0;
	}
	if (block < EXTRA_BLOCK)
		return false;
	place->chunk_no = block - EXTRA_BLOCK;
	place->row = ItemPointerGetOffsetNumberNoCheck(tid) - 1;
	return place->row >= 0;
}

static void
fill_slot(StreamScan *s, TupleTableSlot *slot)
{
	WeirChunkReader *r = s->reader;

	for (int i = 0; i < r->desc->natts; i++)
	{
		slot->tts_isnull[i] =
			r->values[i] == NULL || (r->nulls[i] && r->nulls[i][s->row]);
		slot->tts_values[i] =
			slot->tts_isnull[i] ? (Datum) 0 : r->values[i][s->row];
	}
	ExecStoreVirtualTuple(slot);
	row_tid(&slot->tts_tid, &s->tid, s->row);
	slot->tts_tableOid = RelationGetRelid(s->base.rs_rd);
}

/* Open the next chunk that has rows to show; false: no more. */
static bool
next_chunk(StreamScan *s, bool forward)
{
	for (;;)
	{
		const char *image;
		const WeirChunkHeader *h;
		Size len;
		bool dup = false;

		if (s->idle)
			s->at_extra = forward ? -1 : s->nextras;
		s->idle = false;
		if (s->at_extra >= 0)
			s->at_extra += forward ? 1 : -1;
		if (s->at_extra < 0)
		{
			if (weir_log_scan_next(s->log, forward, &image, &len, &s->tid))
			{
				h = (const WeirChunkHeader *) image;
				if (h->nrows == 0)
					continue;
				for (int i = 0; i < s->nextras; i++)
					if (s->extras[i].chunk_no == h->chunk_no &&
						FullTransactionIdEquals(h->xid,
												GetTopFullTransactionIdIfAny()))
						dup = true;
				if (dup)
					continue;
				s->limit = chunk_limit(s->entry, &s->tid, h->nrows,
									   s->base.rs_snapshot, h->xid);
				if (s->limit == 0)
					continue;
				weir_chunk_reader_open(s->reader, image, len);
				return true;
			}
			if (!forward)
				break;
			s->at_extra = 0;
		}
		if (s->at_extra >= s->nextras)
			break;
		if (s->extras[s->at_extra].limit == 0)
			continue;
		weir_chunk_reader_open(s->reader, s->extras[s->at_extra].image,
							   s->extras[s->at_extra].len);
		s->limit = s->extras[s->at_extra].limit;
		ItemPointerSet(&s->tid, EXTRA_BLOCK + s->extras[s->at_extra].chunk_no,
					   1);
		return true;
	}
	s->idle = true;
	s->limit = 0;
	return false;
}

static bool
stream_getnextslot(TableScanDesc scan, ScanDirection direction,
				   TupleTableSlot *slot)
{
	StreamScan *s = (StreamScan *) scan;
	bool forward = !ScanDirectionIsBackward(direction);

	ExecClearTuple(slot);
	if (!s->idle && forward && s->row + 1 < s->limit)
		s->row++;
	else if (!s->idle && !forward && s->row > 0)
		s->row--;
	else
	{
		if (!next_chunk(s, forward))
			return false;
		s->row = forward ? 0 : s->limit - 1;
		if (pgstat_should_count_relation(scan->rs_rd))
			weir_pgstat_returned(scan->rs_rd) += s->limit - 1;
	}
	fill_slot(s, slot);
	return true;
}

/* ---------------------------------------------------------- AM callbacks */

static const TupleTableSlotOps *
stream_slot_callbacks(Relation rel)
{
	return &TTSOpsVirtual;
}

/* The row of an Extra, while its chunk is not yet written. */
static bool
fetch_extra(Entry *e, uint32 chunk_no, int row, TupleTableSlot *slot)
{
	for (Level *l = e->level; l != NULL; l = l->parent)
		for (Pending *p = l->first; p != NULL; p = p->next)
			if (p->chunk_no == chunk_no && row >= 0 &&
				row < weir_chunk_builder_nrows(p->builder))
			{
				weir_chunk_builder_get(p->builder, row, slot->tts_values,
									   slot->tts_isnull);
				ExecStoreVirtualTuple(slot);
				return true;
			}
	return false;
}

/* The row of a virtual number, if it is not yet written. */
static bool
fetch_pending(Entry *e, uint64 number, TupleTableSlot *slot)
{
	for (Level *l = e->level; l != NULL; l = l->parent)
		for (Pending *p = l->first; p != NULL; p = p->next)
			for (int i = 0; i < p->nvirtual; i++)
			{
				VirtualRange *v = &p->virtuals[i];

				if (number < v->number || number >= v->number + v->n)
					continue;
				weir_chunk_builder_get(p->builder,
									   v->row + (number - v->number),
									   slot->tts_values, slot->tts_isnull);
				ExecStoreVirtualTuple(slot);
				return true;
			}
	return false;
}

/* The written chunk of a virtual number; NULL: there is none. */
static VirtualRange *
find_written(Entry *e, uint64 number)
{
	int low = 0;
	int high = e->nwritten;

	while (low < high)
	{
		int mid = (low + high) / 2;

		if (e->written[mid].number + e->written[mid].n <= number)
			low = mid + 1;
		else
			high = mid;
	}
	if (low >= e->nwritten || e->written[low].number > number)
		return NULL;
	return &e->written[low];
}

/*
 * The same, from a chunk that is.  Triggers come for row after row: the chunk
 * stays decoded.
 */
static bool
fetch_written(Entry *e, Relation rel, uint64 number, TupleTableSlot *slot)
{
	VirtualRange *v = find_written(e, number);
	MemoryContext old;
	StreamScan s;
	Size len;

	if (v == NULL)
		return false;
	if (e->fetch_reader == NULL || !ItemPointerIsValid(&e->fetched) ||
		!ItemPointerEquals(&e->fetched, &v->tid))
	{
		old = MemoryContextSwitchTo(xact_cxt);
		ItemPointerSetInvalid(&e->fetched);
		if (e->fetch_image != NULL)
			pfree(e->fetch_image);
		e->fetch_image = NULL;
		if (e->fetch_reader == NULL)
			e->fetch_reader = weir_chunk_reader_create(e->desc, NULL);
		if (!weir_log_fetch(rel, SnapshotSelf, &v->tid, &e->fetch_image, &len))
		{
			MemoryContextSwitchTo(old);
			return false;
		}
		weir_chunk_reader_open(e->fetch_reader, e->fetch_image, len);
		e->fetched = v->tid;
		MemoryContextSwitchTo(old);
	}
	memset(&s, 0, sizeof(s.base));
	s.base.rs_rd = rel;
	s.reader = e->fetch_reader;
	s.tid = v->tid;
	s.row = v->row + (number - v->number);
	if (s.row >= s.reader->nrows)
		return false;
	fill_slot(&s, slot);
	return true;
}

/* One row by a real or a virtual TID. */
static bool
stream_fetch(Relation rel, ItemPointer tid, Snapshot snapshot,
			 TupleTableSlot *slot)
{
	BlockNumber block = ItemPointerGetBlockNumber(tid);
	bool found = false;

	ExecClearTuple(slot);
	if (block >= EXTRA_BLOCK)
	{
		Entry *e = find_entry(rel);

		found =
			e != NULL && fetch_extra(e, block - EXTRA_BLOCK,
									 ItemPointerGetOffsetNumber(tid) - 1, slot);
		if (found)
			ExecMaterializeSlot(slot);
	}
	else if (block >= VIRTUAL_BLOCK)
	{
		Entry *e = find_entry(rel);
		uint64 number = (uint64) (block - VIRTUAL_BLOCK) * VIRTUAL_PER_BLOCK +
						ItemPointerGetOffsetNumber(tid) - 1;

		found = e != NULL && (fetch_pending(e, number, slot) ||
							  fetch_written(e, rel, number, slot));
		if (found)
			ExecMaterializeSlot(slot);
	}
	else
	{
		StreamScan s;
		char *image;
		Size len;

		if (snapshot == SnapshotAny)
			snapshot = ActiveSnapshotSet() ? GetActiveSnapshot() : SnapshotSelf;
		memset(&s, 0, sizeof(s.base));
		s.base.rs_rd = rel;
		s.row = chunk_tid(&s.tid, tid);
		if (s.row < 0 || !weir_log_fetch(rel, snapshot, &s.tid, &image, &len))
			return false;
		s.reader = weir_chunk_reader_create(RelationGetDescr(rel), NULL);
		weir_chunk_reader_open(s.reader, image, len);
		if (s.row < s.reader->nrows)
		{
			fill_slot(&s, slot);
			ExecMaterializeSlot(slot);
			found = true;
		}
		weir_chunk_reader_free(s.reader);
		pfree(image);
	}
	if (found)
	{
		slot->tts_tid = *tid;
		slot->tts_tableOid = RelationGetRelid(rel);
	}
	return found;
}

static bool
stream_tid_valid(TableScanDesc scan, ItemPointer tid)
{
	return ItemPointerIsValid(tid);
}

static void
stream_latest_tid(TableScanDesc scan, ItemPointer tid)
{
}

static bool
stream_satisfies(Relation rel, TupleTableSlot *slot, Snapshot snapshot)
{
	return true;
}

static void
stream_speculative(Relation rel, TupleTableSlot *slot, CommandId cid,
				   int options, struct BulkInsertStateData *b, uint32 token)
{
	refuse_on_conflict(rel);
}

static void
stream_complete(Relation rel, TupleTableSlot *slot, uint32 token, bool ok)
{
	refuse_on_conflict(rel);
}

static TM_Result
stream_delete(Relation rel, ItemPointer tid, CommandId cid, Snapshot snapshot,
			  Snapshot crosscheck, bool wait, TM_FailureData *f, bool moving)
{
	refuse(rel, "delete from");
}

static TM_Result
stream_update(Relation rel, ItemPointer tid, TupleTableSlot *slot,
			  CommandId cid, Snapshot snapshot, Snapshot crosscheck, bool wait,
			  TM_FailureData *f, LockTupleMode *mode, WeirUpdateIndexes *u)
{
	refuse(rel, "update");
}

/* A row that never changes is share-locked by doing nothing (RI). */
static TM_Result
stream_lock(Relation rel, ItemPointer tid, Snapshot snapshot,
			TupleTableSlot *slot, CommandId cid, LockTupleMode mode,
			LockWaitPolicy policy, uint8 flags, TM_FailureData *f)
{
	if (mode != LockTupleKeyShare && mode != LockTupleShare)
		refuse_lock(rel);
	memset(f, 0, sizeof(*f));
	if (ItemPointerIsValid(tid))
		(void) stream_fetch(rel, tid, snapshot, slot);
	return TM_Ok;
}

static struct IndexFetchTableData *
stream_index_begin(Relation rel)
{
	refuse(rel, "use an index on");
}

static void
stream_index_none(struct IndexFetchTableData *d)
{
}

static bool
stream_index_fetch(struct IndexFetchTableData *d, ItemPointer tid,
				   Snapshot snapshot, TupleTableSlot *slot, bool *again,
				   bool *dead)
{
	return false;
}

static TransactionId
stream_index_delete(Relation rel, TM_IndexDeleteOp *d)
{
	refuse(rel, "use an index on");
}

static double
stream_index_build(Relation rel, Relation index, struct IndexInfo *info,
				   bool sync, bool anyvisible, bool progress, BlockNumber start,
				   BlockNumber n, IndexBuildCallback cb, void *state,
				   TableScanDesc scan)
{
	refuse(rel, "create an index on");
}

static void
stream_index_validate(Relation rel, Relation index, struct IndexInfo *info,
					  Snapshot snapshot, struct ValidateIndexState *state)
{
	refuse(rel, "create an index on");
}

/* weir_log_max_time; a log that cannot be read can be removed all the same. */
static TimestampTz
newest_event(Relation rel)
{
	MemoryContext cxt = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;
	volatile TimestampTz result = PG_INT64_MAX;

	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(cxt);
	PG_TRY();
	{
		result = weir_log_max_time(rel);
		ReleaseCurrentSubTransaction();
	}
	PG_CATCH();
	{
		ErrorData *e;

		MemoryContextSwitchTo(cxt);
		e = CopyErrorData();
		FlushErrorState();
		RollbackAndReleaseCurrentSubTransaction();
		MemoryContextSwitchTo(cxt);
		CurrentResourceOwner = owner;
		if (e->sqlerrcode != ERRCODE_DATA_CORRUPTED &&
			e->sqlerrcode != ERRCODE_IO_ERROR &&
			e->sqlerrcode != ERRCODE_UNDEFINED_FILE)
			ReThrowError(e);
		FreeErrorData(e);
	}
	PG_END_TRY();
	MemoryContextSwitchTo(cxt);
	CurrentResourceOwner = owner;
	return result;
}

/*
 * The old file of a stream is still there, and nobody else is at it.  Who wants
 * to know: views that have counted what is in it.
 */
static void
note_removed(Relation rel)
{
	Oid relid = RelationGetRelid(rel);
	MemoryContext old;
	Removed *r;

	if (weir_catalog_views_of_stream(relid) == NIL)
		return;
	old = MemoryContextSwitchTo(TopTransactionContext);
	r = palloc(sizeof(Removed));
	r->relid = relid;
	r->max_time = newest_event(rel);
	removed = lcons(r, removed);
	MemoryContextSwitchTo(old);
}

TimestampTz
weir_stream_truncated_time(Oid relid)
{
	TimestampTz result = WEIR_NO_TIME;
	ListCell *lc;

	foreach(lc, removed)
	{
		const Removed *r = lfirst(lc);

		if (r->relid == relid)
			result = Max(result, r->max_time);
	}
	return result;
}

static void
stream_new_file(Relation rel, const RelFileLocator *locator, char persistence,
				TransactionId *xid, MultiXactId *multi)
{
	WeirStreamShared *s;

	if (persistence == RELPERSISTENCE_TEMP)
		ereport(ERROR, (errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
						errmsg("stream \"%s\" cannot be temporary",
							   RelationGetRelationName(rel)),
						errdetail("Background workers could not read it."),
						errhint("Create it UNLOGGED, or write USING heap.")));

	/*
	 * Where the library is not preloaded this may be a TRUNCATE that our
	 * utility hook has not seen, of events that views have not consumed.
	 */
	if (!OidIsValid(rel->rd_rel->relrewrite) && !IsBinaryUpgrade)
	{
		weir_shmem_require();
		s = weir_shmem_stream(RelationGetRelid(rel), false);
		if (s)
			s->watermark_valid = false;
	}
	if (!OidIsValid(rel->rd_rel->relrewrite) &&
		weir_locator_number(locator) != weir_rel_number(rel))
		note_removed(rel);
	GetHeapamTableAmRoutine()->relation_set_new_filelocator(
		rel, locator, persistence, xid, multi);
}

static void
stream_truncate(Relation rel)
{
	Entry *e = find_entry(rel);

	/* what this transaction wrote is gone, whatever happens to it */
	if (e != NULL)
		ItemPointerSetInvalid(&e->fetched);
	for (Level *l = e ? e->level : NULL; l != NULL; l = l->parent)
	{
		while (l->first)
		{
			Pending *p = l->first;

			l->first = p->next;
			free_pending(p);
		}
		l->last = NULL;
		l->nchunks = 0;
		l->nrows = l->nbytes = 0;
		l->nplaces = 0;
		l->max_time = WEIR_NO_TIME;
	}
	GetHeapamTableAmRoutine()->relation_nontransactional_truncate(rel);
}

static void
stream_copy_data(Relation rel, const RelFileLocator *locator)
{
	if (find_entry(rel) != NULL)
		ereport(
			ERROR,
			(errcode(ERRCODE_OBJECT_IN_USE),
			 errmsg(
				 "cannot move stream \"%s\" in a transaction that wrote to it",
				 RelationGetRelationName(rel)),
			 errhint("Commit first.")));
	GetHeapamTableAmRoutine()->relation_copy_data(rel, locator);
}

static void
stream_copy_cluster(Relation old, Relation new, Relation index, bool sort,
					TransactionId oldest, TransactionId *xid,
					MultiXactId *multi, double *rows, double *vacuumed,
					double *recently_dead)
{
	flush_relation(old);
	weir_log_rewrite(old, new, oldest, *xid, *multi, rows, vacuumed,
					 recently_dead);
}

/*
 * heap's vacuum looks at tuple headers only, and takes chunks for rows: keep the
 * number of rows a page that was known before, which ANALYZE renews.
 */
static void
stream_vacuum(Relation rel, struct VacuumParams *params,
			  BufferAccessStrategy strategy)
{
	BlockNumber old_pages = rel->rd_rel->relpages;
	double rows = rel->rd_rel->reltuples;
	BlockNumber pages;
	BlockNumber all_visible;
	BlockNumber all_frozen;

	GetHeapamTableAmRoutine()->relation_vacuum(rel, params, strategy);

	pages = RelationGetNumberOfBlocks(rel);
	visibilitymap_count(rel, &all_visible, &all_frozen);
	if (rows > 0)
		rows = old_pages > 0 ? rows / old_pages * pages : -1;
	/* so that the frozen xid just stored is not overwritten by an old copy */
	CommandCounterIncrement();
	weir_update_relstats(rel, pages, rows, all_visible, all_frozen);
}

static void
load_block(StreamScan *s, Buffer buffer)
{
	s->block = BufferGetBlockNumber(buffer);
	s->nblock = weir_log_block_chunks(s->base.rs_rd, s->base.rs_snapshot,
									  buffer, InvalidOffsetNumber, s->blocks);
	s->at_block = 0;
	s->row = s->limit = 0;
}

static bool
stream_analyze_block(TableScanDesc scan, WEIR_ANALYZE_BLOCK_ARGS)
{
	Buffer buffer = weir_analyze_read_block(scan->rs_rd);

	if (!BufferIsValid(buffer))
		return false;
	load_block((StreamScan *) scan, buffer);
	ReleaseBuffer(buffer);
	return true;
}

/*
 * ANALYZE sorts its sample by place, which a virtual slot does not give to the
 * heap tuple copied from it.  Other slots of a stream must be truly virtual: the
 * executor copies a row whenever it goes from one kind of slot to another.  So
 * ANALYZE's own slot, which we see here only, is made a special one.
 */
static HeapTuple
sample_copy_heap_tuple(TupleTableSlot *slot)
{
	HeapTuple tup = TTSOpsVirtual.copy_heap_tuple(slot);

	tup->t_self = slot->tts_tid;
	return tup;
}

static void
prepare_sample_slot(TupleTableSlot *slot)
{
	static TupleTableSlotOps ops;
	const TupleTableSlotOps *p = &ops;

	if (slot->tts_ops != &TTSOpsVirtual)
		return;
	memcpy(&ops, &TTSOpsVirtual, sizeof(ops));
	ops.copy_heap_tuple = sample_copy_heap_tuple;
	/* the pointer in a slot is const */
	memcpy((void *) &slot->tts_ops, &p, sizeof(p));
}

static bool
stream_analyze_tuple(TableScanDesc scan, TransactionId oldest, double *live,
					 double *dead, TupleTableSlot *slot)
{
	StreamScan *s = (StreamScan *) scan;

	prepare_sample_slot(slot);
	ExecClearTuple(slot);
	while (++s->row >= s->limit)
	{
		Size len;

		if (s->at_block >= s->nblock)
			return false;
		ItemPointerSet(&s->tid, s->block, s->blocks[s->at_block].offset);
		s->limit = s->blocks[s->at_block++].header.nrows;
		s->row = -1;
		if (s->image)
			pfree(s->image);
		s->image = NULL;
		if (s->limit > 0 && weir_log_fetch(scan->rs_rd, scan->rs_snapshot,
										   &s->tid, &s->image, &len))
			weir_chunk_reader_open(s->reader, s->image, len);
		else
			s->limit = 0;
	}
	fill_slot(s, slot);
	*live += 1;
	return true;
}

static bool
stream_sample_block(TableScanDesc scan, struct SampleScanState *state)
{
	refuse_sample(scan->rs_rd);
}

static bool
stream_sample_tuple(TableScanDesc scan, struct SampleScanState *state,
					TupleTableSlot *slot)
{
	refuse_sample(scan->rs_rd);
}

static bool
stream_needs_toast(Relation rel)
{
	return false;
}

static void
stream_estimate(Relation rel, int32 *widths, BlockNumber *pages, double *rows,
				double *allvisible)
{
	table_block_relation_estimate_size(rel, widths, pages, rows, allvisible, 2,
									   MaxHeapTupleSize);
}

/* ------------------------------------------------------- the batch scan */

void
weir_stream_set_slice(WeirSlice *slice)
{
	current_slice = slice;
}

PG_FUNCTION_INFO_V1(weir_stream_arrival);

/*
 * Of the event that the batch scan has returned last, while a batch runs; the
 * planner may ask at any time for an estimate.
 */
Datum
weir_stream_arrival(PG_FUNCTION_ARGS)
{
	const WeirSlice *s = current_slice;

	if (s != NULL && s->at_chunk < s->nchunks)
		PG_RETURN_TIMESTAMPTZ(s->chunks[s->at_chunk].arrival);
	PG_RETURN_TIMESTAMPTZ(GetCurrentTransactionStartTimestamp());
}

typedef struct BatchScanState
{
	CustomScanState css;
	int chunk;
	int row;

	/* of the chunk at hand: the columns it was decoded for */
	int loaded; /* its number, or -1 */
	int ncolumns;
	int *columns; /* 0-based */
	const Datum **values;
	const bool **nulls; /* NULL: the column has none */
} BatchScanState;

/* Columns that nobody needs are null in all rows. */
static void
batch_load(BatchScanState *b, TupleTableSlot *slot, const WeirChunkReader *r)
{
	int natts = slot->tts_tupleDescriptor->natts;

	b->ncolumns = 0;
	for (int i = 0; i < natts; i++)
	{
		if (i >= r->desc->natts || r->values[i] == NULL)
		{
			slot->tts_isnull[i] = true;
			continue;
		}
		b->columns[b->ncolumns] = i;
		b->values[b->ncolumns] = r->values[i];
		b->nulls[b->ncolumns++] = r->nulls[i];
	}
	b->loaded = b->chunk;
}

static bool
batch_skips(const WeirSlice *s, int chunk, int row)
{
	for (int i = 0; i < s->nskip; i++)
		if (s->skip[i].chunk == chunk && s->skip[i].row == row)
			return true;
	return false;
}

static TupleTableSlot *
batch_next(ScanState *ss)
{
	BatchScanState *b = (BatchScanState *) ss;
	WeirSlice *s = current_slice;
	TupleTableSlot *slot = ss->ss_ScanTupleSlot;

	ExecClearTuple(slot);
	if (s == NULL || s->stream != RelationGetRelid(ss->ss_currentRelation))
		elog(ERROR, "unexpected: no slice is set for this stream");
	do
	{
		b->row++;
		while (b->chunk < s->nchunks &&
			   b->row >= s->chunks[b->chunk].reader->nrows)
		{
			b->chunk++;
			b->row = 0;
		}
		if (b->chunk >= s->nchunks)
			return slot;
	} while (unlikely(s->nskip > 0) && batch_skips(s, b->chunk, b->row));
	if (b->loaded != b->chunk)
		batch_load(b, slot, s->chunks[b->chunk].reader);
	s->at_chunk = b->chunk;
	s->at_row = b->row;
	for (int i = 0; i < b->ncolumns; i++)
	{
		int c = b->columns[i];

		slot->tts_values[c] = b->values[i][b->row];
		slot->tts_isnull[c] = b->nulls[i] != NULL && b->nulls[i][b->row];
	}
	slot->tts_tableOid = s->stream;
	return ExecStoreVirtualTuple(slot);
}

static bool
batch_recheck(ScanState *ss, TupleTableSlot *slot)
{
	return true;
}

static void
batch_begin(CustomScanState *node, EState *estate, int eflags)
{
	BatchScanState *b = (BatchScanState *) node;
	int natts = node->ss.ss_ScanTupleSlot->tts_tupleDescriptor->natts;

	b->chunk = 0;
	b->row = -1;
	b->loaded = -1;
	if (b->columns != NULL)
		return;
	b->columns = palloc((natts + 1) * sizeof(int));
	b->values = palloc((natts + 1) * sizeof(Datum *));
	b->nulls = palloc((natts + 1) * sizeof(bool *));
}

static TupleTableSlot *
batch_exec(CustomScanState *node)
{
	return ExecScan(&node->ss, batch_next, batch_recheck);
}

static void
batch_end(CustomScanState *node)
{
}

static void
batch_rescan(CustomScanState *node)
{
	batch_begin(node, NULL, 0);
	ExecScanReScan(&node->ss);
}

static const CustomExecMethods batch_exec_methods = {
	.CustomName = "Stream Batch",
	.BeginCustomScan = batch_begin,
	.ExecCustomScan = batch_exec,
	.EndCustomScan = batch_end,
	.ReScanCustomScan = batch_rescan,
};

static Node *
batch_create_state(CustomScan *plan)
{
	BatchScanState *b =
		(BatchScanState *) newNode(sizeof(BatchScanState), T_CustomScanState);

	b->css.methods = &batch_exec_methods;
	return (Node *) b;
}

static const CustomScanMethods batch_scan_methods = {
	.CustomName = "Stream Batch",
	.CreateCustomScanState = batch_create_state,
};

static Plan *
batch_plan(PlannerInfo *root, RelOptInfo *rel, CustomPath *path, List *tlist,
		   List *clauses, List *custom_plans)
{
	CustomScan *scan = makeNode(CustomScan);

	scan->scan.plan.targetlist = tlist;
	scan->scan.plan.qual = extract_actual_clauses(clauses, false);
	scan->scan.scanrelid = rel->relid;
	scan->flags = path->flags;
	scan->methods = &batch_scan_methods;
	return &scan->scan.plan;
}

static const CustomPathMethods batch_path_methods = {
	.CustomName = "Stream Batch",
	.PlanCustomPath = batch_plan,
};

/* -------------------------------------------------------- the time scan */

/*
 * "Stream Scan": a scan with conditions on the event time, which passes over
 * chunks that hold no such event and decodes only the columns it needs.  The
 * conditions stay in the plan's qual.  custom_exprs are the values the event
 * time is compared with; custom_private has for each the operator's strategy and
 * the value's type.
 */
typedef struct TimeScanShared
{
	pg_atomic_uint64 nread; /* of workers that are through */
	pg_atomic_uint64 nskipped;
	/* then, MAXALIGNed: the ParallelTableScanDesc */
} TimeScanShared;

typedef struct TimeScanState
{
	CustomScanState css;
	bool is_timestamptz; /* the column */
	List *values;		 /* ExprStates */
	List *conditions;
	Bitmapset *columns; /* to decode; NULL: all */
	TimeScanShared *shared;
	bool pass_over_runs; /* alone, and forward only */
	uint64 nread;		 /* of workers */
	uint64 nskipped;
} TimeScanState;

static ParallelTableScanDesc
time_scan_parallel(TimeScanShared *shared)
{
	return (ParallelTableScanDesc) ((char *) shared +
									MAXALIGN(sizeof(TimeScanShared)));
}

/* As the comparison operators of the types do it. */
static int64
value_time(Datum value, Oid type, bool is_timestamptz)
{
	int overflow;

	switch (type)
	{
		case DATEOID:
			if (is_timestamptz)
				return date2timestamptz_opt_overflow(DatumGetDateADT(value),
													 &overflow);
			return date2timestamp_opt_overflow(DatumGetDateADT(value),
											   &overflow);
		case TIMESTAMPOID:
			if (is_timestamptz)
				return timestamp2timestamptz_opt_overflow(
					DatumGetTimestamp(value), &overflow);
			return DatumGetTimestamp(value);
		default:
			return DatumGetTimestampTz(value);
	}
}

/* Evaluate the values and limit the scan by them. */
static void
time_scan_limit(TimeScanState *t)
{
	StreamScan *s = (StreamScan *) t->css.ss.ss_currentScanDesc;
	ExprContext *econtext = t->css.ss.ps.ps_ExprContext;
	int64 min = PG_INT64_MIN;
	int64 max = PG_INT64_MAX;
	bool none = false;
	int i = 0;
	ListCell *lc;

	foreach(lc, t->values)
	{
		StrategyNumber strategy = list_nth_int(t->conditions, i++);
		Oid type = list_nth_int(t->conditions, i++);
		bool isnull;
		Datum value = ExecEvalExprSwitchContext(lfirst(lc), econtext, &isnull);
		int64 time;

		if (isnull)
		{
			none = true;
			continue;
		}
		time = value_time(value, type, t->is_timestamptz);
		if (strategy == BTLessStrategyNumber)
			none = none || time-- == PG_INT64_MIN;
		else if (strategy == BTGreaterStrategyNumber)
			none = none || time++ == PG_INT64_MAX;
		if (strategy <= BTEqualStrategyNumber)
			max = Min(max, time);
		if (strategy >= BTEqualStrategyNumber)
			min = Max(min, time);
	}
	ResetExprContext(econtext);
	if (none)
	{
		min = PG_INT64_MAX;
		max = PG_INT64_MIN;
	}
	weir_log_scan_limit(s->log, min, max, t->pass_over_runs);
}

static TupleTableSlot *
time_scan_next(ScanState *ss)
{
	TimeScanState *t = (TimeScanState *) ss;

	if (ss->ss_currentScanDesc == NULL)
	{
		Relation rel = ss->ss_currentRelation;
		StreamScan *s;

		if (t->shared)
			ss->ss_currentScanDesc =
				table_beginscan_parallel(rel, time_scan_parallel(t->shared));
		else
			ss->ss_currentScanDesc =
				table_beginscan(rel, ss->ps.state->es_snapshot, 0, NULL);
		s = (StreamScan *) ss->ss_currentScanDesc;
		if (t->columns)
		{
			weir_chunk_reader_free(s->reader);
			s->reader =
				weir_chunk_reader_create(RelationGetDescr(rel), t->columns);
		}
		time_scan_limit(t);
	}
	if (table_scan_getnextslot(ss->ss_currentScanDesc,
							   ss->ps.state->es_direction,
							   ss->ss_ScanTupleSlot))
		return ss->ss_ScanTupleSlot;
	return NULL;
}

static bool
time_scan_recheck(ScanState *ss, TupleTableSlot *slot)
{
	return true; /* all conditions are in the qual */
}

/*
 * Asked of the finished plan: the planner puts another target list into it after
 * it has been made.
 */
static Bitmapset *
columns_of_scan(const CustomScan *scan)
{
	Bitmapset *attnos = NULL;
	Bitmapset *columns = NULL;
	int attno = -FirstLowInvalidHeapAttributeNumber;

	pull_varattnos((Node *) scan->scan.plan.targetlist, scan->scan.scanrelid,
				   &attnos);
	pull_varattnos((Node *) scan->scan.plan.qual, scan->scan.scanrelid,
				   &attnos);
	/* a whole row needs them all */
	if (bms_is_member(attno, attnos))
		return NULL;
	while ((attno = bms_next_member(attnos, attno)) >= 0)
		columns =
			bms_add_member(columns, attno + FirstLowInvalidHeapAttributeNumber);
	return columns;
}

static void
time_scan_begin(CustomScanState *node, EState *estate, int eflags)
{
	TimeScanState *t = (TimeScanState *) node;
	CustomScan *plan = (CustomScan *) node->ss.ps.plan;
	ListCell *lc;

	t->is_timestamptz = weir_catalog_stream_options(node->ss.ss_currentRelation)
							->event_is_timestamptz;
	t->conditions = plan->custom_private;
	t->columns = columns_of_scan(plan);
	t->pass_over_runs =
		!plan->scan.plan.parallel_aware && !(eflags & EXEC_FLAG_BACKWARD);
	foreach(lc, plan->custom_exprs)
		t->values = lappend(t->values, ExecInitExpr(lfirst(lc), &node->ss.ps));
}

static TupleTableSlot *
time_scan_exec(CustomScanState *node)
{
	return ExecScan(&node->ss, time_scan_next, time_scan_recheck);
}

static void
time_scan_end(CustomScanState *node)
{
	if (node->ss.ss_currentScanDesc)
		table_endscan(node->ss.ss_currentScanDesc);
}

static void
time_scan_rescan(CustomScanState *node)
{
	if (node->ss.ss_currentScanDesc)
	{
		table_rescan(node->ss.ss_currentScanDesc, NULL);
		time_scan_limit((TimeScanState *) node);
	}
	ExecScanReScan(&node->ss);
}

static Size
time_scan_estimate_dsm(CustomScanState *node, ParallelContext *pcxt)
{
	return MAXALIGN(sizeof(TimeScanShared)) +
		   table_parallelscan_estimate(node->ss.ss_currentRelation,
									   node->ss.ps.state->es_snapshot);
}

static void
time_scan_initialize_dsm(CustomScanState *node, ParallelContext *pcxt,
						 void *coordinate)
{
	TimeScanState *t = (TimeScanState *) node;

	t->shared = coordinate;
	pg_atomic_init_u64(&t->shared->nread, 0);
	pg_atomic_init_u64(&t->shared->nskipped, 0);
	table_parallelscan_initialize(node->ss.ss_currentRelation,
								  time_scan_parallel(t->shared),
								  node->ss.ps.state->es_snapshot);
}

static void
time_scan_reinitialize_dsm(CustomScanState *node, ParallelContext *pcxt,
						   void *coordinate)
{
	TimeScanState *t = (TimeScanState *) node;

	table_parallelscan_reinitialize(node->ss.ss_currentRelation,
									time_scan_parallel(t->shared));
}

static void
time_scan_initialize_worker(CustomScanState *node, shm_toc *toc,
							void *coordinate)
{
	((TimeScanState *) node)->shared = coordinate;
}

/* Before the shared memory goes: workers leave their counts, we take them. */
static void
time_scan_shutdown(CustomScanState *node)
{
	TimeScanState *t = (TimeScanState *) node;
	StreamScan *s = (StreamScan *) node->ss.ss_currentScanDesc;

	if (t->shared == NULL)
		return;
	if (!IsParallelWorker())
	{
		t->nread += pg_atomic_exchange_u64(&t->shared->nread, 0);
		t->nskipped += pg_atomic_exchange_u64(&t->shared->nskipped, 0);
	}
	else if (s != NULL)
	{
		uint64 nread;
		uint64 nskipped;

		weir_log_scan_counts(s->log, &nread, &nskipped);
		pg_atomic_fetch_add_u64(&t->shared->nread, nread);
		pg_atomic_fetch_add_u64(&t->shared->nskipped, nskipped);
	}
}

static void
time_scan_explain(CustomScanState *node, List *ancestors, ExplainState *es)
{
	TimeScanState *t = (TimeScanState *) node;
	StreamScan *s = (StreamScan *) node->ss.ss_currentScanDesc;
	uint64 nread = 0;
	uint64 nskipped = 0;

	if (!es->analyze)
		return;
	if (s != NULL)
		weir_log_scan_counts(s->log, &nread, &nskipped);
	ExplainPropertyUInteger("Chunks Read", NULL, t->nread + nread, es);
	ExplainPropertyUInteger("Chunks Skipped", NULL, t->nskipped + nskipped, es);
}

static const CustomExecMethods time_scan_exec_methods = {
	.CustomName = "Stream Scan",
	.BeginCustomScan = time_scan_begin,
	.ExecCustomScan = time_scan_exec,
	.EndCustomScan = time_scan_end,
	.ReScanCustomScan = time_scan_rescan,
	.EstimateDSMCustomScan = time_scan_estimate_dsm,
	.InitializeDSMCustomScan = time_scan_initialize_dsm,
	.ReInitializeDSMCustomScan = time_scan_reinitialize_dsm,
	.InitializeWorkerCustomScan = time_scan_initialize_worker,
	.ShutdownCustomScan = time_scan_shutdown,
	.ExplainCustomScan = time_scan_explain,
};

static Node *
time_scan_create_state(CustomScan *plan)
{
	TimeScanState *t =
		(TimeScanState *) newNode(sizeof(TimeScanState), T_CustomScanState);

	t->css.methods = &time_scan_exec_methods;
	return (Node *) t;
}

static const CustomScanMethods time_scan_methods = {
	.CustomName = "Stream Scan",
	.CreateCustomScanState = time_scan_create_state,
};

/* The path's private list: conditions, values. */
static Plan *
time_scan_plan(PlannerInfo *root, RelOptInfo *rel, CustomPath *path,
			   List *tlist, List *clauses, List *custom_plans)
{
	CustomScan *scan = makeNode(CustomScan);

	scan->scan.plan.targetlist = tlist;
	scan->scan.plan.qual = extract_actual_clauses(clauses, false);
	scan->scan.scanrelid = rel->relid;
	scan->flags = path->flags;
	scan->methods = &time_scan_methods;
	scan->custom_exprs = lsecond(path->custom_private);
	scan->custom_private = linitial(path->custom_private);
	return &scan->scan.plan;
}

static const CustomPathMethods time_scan_path_methods = {
	.CustomName = "Stream Scan",
	.PlanCustomPath = time_scan_plan,
};

/*
 * Is this clause a comparison of the event time with something that is known
 * when the scan starts?
 */
static bool
is_time_condition(RelOptInfo *rel, const WeirStreamOptions *options,
				  RestrictInfo *rinfo, int *strategy, Oid *type, Node **value)
{
	Oid column_type =
		options->event_is_timestamptz ? TIMESTAMPTZOID : TIMESTAMPOID;
	OpExpr *op = (OpExpr *) rinfo->clause;
	Oid opno;
	Oid family;
	Oid left_type;
	Var *var;

	if (!IsA(op, OpExpr) || list_length(op->args) != 2)
		return false;
	opno = op->opno;
	var = linitial(op->args);
	*value = lsecond(op->args);
	if (!IsA(var, Var))
	{
		opno = get_commutator(opno);
		var = lsecond(op->args);
		*value = linitial(op->args);
	}
	if (!IsA(var, Var) || var->varno != rel->relid ||
		var->varattno != options->event_attno || !OidIsValid(opno) ||
		contain_var_clause(*value) || contain_volatile_functions(*value) ||
		contain_subplans(*value))
		return false;

	family =
		lookup_type_cache(column_type, TYPECACHE_BTREE_OPFAMILY)->btree_opf;
	if (!op_in_opfamily(opno, family))
		return false;
	get_op_opfamily_properties(opno, family, false, strategy, &left_type, type);
	/* a timestamptz cannot be told as a timestamp where clocks are set back */
	return left_type == column_type &&
		   (*type == column_type || *type == DATEOID ||
			(*type == TIMESTAMPOID && options->event_is_timestamptz));
}

static CustomPath *
make_time_scan_path(PlannerInfo *root, RelOptInfo *rel, List *private,
					double selectivity, int workers)
{
	CustomPath *path = makeNode(CustomPath);
	Path *seq = create_seqscan_path(root, rel, NULL, workers);
	double page_cost;

	path->path.pathtype = T_CustomScan;
	path->path.parent = rel;
	path->path.pathtarget = rel->reltarget;
	path->path.parallel_aware = workers > 0;
	path->path.parallel_safe = rel->consider_parallel;
	path->path.parallel_workers = workers;
	path->path.rows = seq->rows;

	/* not every row is looked at; every page, but those of summarized runs */
	get_tablespace_page_costs(rel->reltablespace, NULL, &page_cost);
	page_cost *= rel->pages;
	path->path.startup_cost = seq->startup_cost;
	path->path.total_cost =
		seq->startup_cost +
		(workers > 0 || rel->pages < WEIR_RUN_BLOCKS
			 ? page_cost
			 : page_cost * (1 - rel->allvisfrac * (1 - selectivity))) +
		Max(seq->total_cost - seq->startup_cost - page_cost, 0) * selectivity;

	path->flags = CUSTOMPATH_SUPPORT_BACKWARD_SCAN;
#ifdef CUSTOMPATH_SUPPORT_PROJECTION
	path->flags |= CUSTOMPATH_SUPPORT_PROJECTION;
#endif
	path->custom_private = private;
	path->methods = &time_scan_path_methods;
	return path;
}

static void
add_time_scan_paths(PlannerInfo *root, RelOptInfo *rel,
					const WeirStreamOptions *options)
{
	List *clauses = NIL;
	List *conditions = NIL;
	List *values = NIL;
	List *private;
	double selectivity;
	ListCell *lc;

	if (options->event_attno == 0 || rel->lateral_relids != NULL)
		return;
	foreach(lc, rel->baserestrictinfo)
	{
		RestrictInfo *rinfo = lfirst_node(RestrictInfo, lc);
		int strategy;
		Oid type;
		Node *value;

		if (!is_time_condition(rel, options, rinfo, &strategy, &type, &value))
			continue;
		clauses = lappend(clauses, rinfo);
		conditions = lappend_int(lappend_int(conditions, strategy), type);
		values = lappend(values, copyObject(value));
	}
	if (clauses == NIL)
		return;
	private = list_make2(conditions, values);
	selectivity =
		clauselist_selectivity(root, clauses, rel->relid, JOIN_INNER, NULL);

	add_path(rel,
			 &make_time_scan_path(root, rel, private, selectivity, 0)->path);
	if (rel->consider_parallel)
	{
		int workers = compute_parallel_worker(rel, rel->pages, -1,
											  max_parallel_workers_per_gather);

		if (workers > 0)
			add_partial_path(rel, &make_time_scan_path(root, rel, private,
													   selectivity, workers)
									   ->path);
	}
}

static void
add_batch_path(RelOptInfo *rel)
{
	CustomPath *path = makeNode(CustomPath);

	path->path.pathtype = T_CustomScan;
	path->path.parent = rel;
	path->path.pathtarget = rel->reltarget;
	path->path.rows = rel->rows;
	path->path.total_cost = rel->rows * cpu_tuple_cost;
#ifdef CUSTOMPATH_SUPPORT_PROJECTION
	path->flags = CUSTOMPATH_SUPPORT_PROJECTION;
#endif
	path->methods = &batch_path_methods;
	rel->pathlist = list_make1(path);
	rel->partial_pathlist = NIL;
}

static void
stream_pathlist(PlannerInfo *root, RelOptInfo *rel, Index rti,
				RangeTblEntry *rte)
{
	Relation relation;

	if (prev_set_rel_pathlist)
		prev_set_rel_pathlist(root, rel, rti, rte);
	if (rte->rtekind != RTE_RELATION || rte->inh ||
		rte->relkind != RELKIND_RELATION || rte->tablesample != NULL)
		return;
	relation = RelationIdGetRelation(rte->relid);
	if (relation == NULL)
		return;
	if (is_stream(relation))
	{
		if (weir_stream_in_worker && weir_plan_is_input(root))
			add_batch_path(rel);
		else if (!IS_DUMMY_REL(rel))
			add_time_scan_paths(root, rel,
								weir_catalog_stream_options(relation));
	}
	RelationClose(relation);
}

/* ------------------------------------------------------ refusals, set-up */

typedef void (*Refusal)(Relation rel);

static void
refuse_update(Relation rel)
{
	refuse(rel, "update");
}

static void
refuse_delete(Relation rel)
{
	refuse(rel, "delete from");
}

static void
refuse_merge(Relation rel)
{
	refuse(rel, "merge into");
}

/* Refuse if the relation, or with parts one of its partitions, is a stream. */
static void
check_target(RangeTblEntry *rte, Refusal refusal, bool parts)
{
	List *relids = list_make1_oid(rte->relid);
	ListCell *lc;

	if (parts && rte->relkind == RELKIND_PARTITIONED_TABLE)
		relids = find_all_inheritors(rte->relid, AccessShareLock, NULL);
	foreach(lc, relids)
	{
		Relation rel = RelationIdGetRelation(lfirst_oid(lc));

		if (rel && is_stream(rel))
			refusal(rel);
		if (rel)
			RelationClose(rel);
	}
}

static void
check_modify(const PlannedStmt *stmt, Plan *plan)
{
	ModifyTable *mt = (ModifyTable *) plan;
	ListCell *lc;

	if (plan == NULL || !IsA(plan, ModifyTable) || mt->operation == CMD_INSERT)
		return;
	foreach(lc, mt->resultRelations)
		check_target(rt_fetch(lfirst_int(lc), stmt->rtable),
					 mt->operation == CMD_UPDATE   ? refuse_update
					 : mt->operation == CMD_DELETE ? refuse_delete
												   : refuse_merge,
					 false);
}

/* Before core looks for the unique index that no stream has. */
static void
check_on_conflict(Query *query)
{
	ListCell *lc;

	if (query->onConflict)
		check_target(rt_fetch(query->resultRelation, query->rtable),
					 refuse_on_conflict, true);
	if (!query->hasModifyingCTE)
		return;
	foreach(lc, query->cteList)
	{
		CommonTableExpr *cte = lfirst_node(CommonTableExpr, lc);

		if (IsA(cte->ctequery, Query))
			check_on_conflict((Query *) cte->ctequery);
	}
}

static PlannedStmt *
stream_planner(Query *query, const char *query_string, int cursor_options,
			   ParamListInfo params)
{
	check_on_conflict(query);
	if (prev_planner)
		return prev_planner(query, query_string, cursor_options, params);
	return standard_planner(query, query_string, cursor_options, params);
}

/* Parallel workers know neither rows not yet written nor mixed chunks. */
static void
prepare_parallel(QueryDesc *query)
{
	bool serial = false;
	PlannedStmt *copy;

	weir_stream_flush(InvalidOid);
	for (Entry *e = entries; e != NULL; e = e->next)
	{
		if (e->mixed)
			serial = true;
		for (Level *l = e->level; l != NULL; l = l->parent)
			if (l->first)
				serial = true;
	}
	if (!serial)
		return;
	copy = makeNode(PlannedStmt);
	memcpy(copy, query->plannedstmt, sizeof(PlannedStmt));
	copy->parallelModeNeeded = false;
	query->plannedstmt = copy;
}

static void
stream_executor_start(QueryDesc *query, int eflags)
{
	PlannedStmt *stmt = query->plannedstmt;
	ListCell *lc;

	if (stmt->commandType != CMD_SELECT || stmt->hasModifyingCTE)
	{
		check_modify(stmt, stmt->planTree);
		if (stmt->hasModifyingCTE)
			foreach(lc, stmt->subplans)
				check_modify(stmt, lfirst(lc));
	}
	foreach(lc, stmt->rowMarks)
	{
		PlanRowMark *mark = lfirst_node(PlanRowMark, lc);

		if (mark->markType == ROW_MARK_EXCLUSIVE ||
			mark->markType == ROW_MARK_NOKEYEXCLUSIVE)
			check_target(rt_fetch(mark->rti, stmt->rtable), refuse_lock, false);
	}
	if (entries != NULL && stmt->parallelModeNeeded)
		prepare_parallel(query);
	if (prev_executor_start)
		prev_executor_start(query, eflags);
	else
		standard_ExecutorStart(query, eflags);
}

void
weir_stream_init(void)
{
	RegisterXactCallback(xact_callback, NULL);
	RegisterSubXactCallback(subxact_callback, NULL);
	prev_planner = planner_hook;
	planner_hook = stream_planner;
	prev_executor_start = ExecutorStart_hook;
	ExecutorStart_hook = stream_executor_start;
	prev_set_rel_pathlist = set_rel_pathlist_hook;
	set_rel_pathlist_hook = stream_pathlist;
	RegisterCustomScanMethods(&batch_scan_methods);
	RegisterCustomScanMethods(&time_scan_methods);
}

PG_FUNCTION_INFO_V1(weir_stream_handler);

Datum
weir_stream_handler(PG_FUNCTION_ARGS)
{
	TableAmRoutine *m = &stream_methods;

	if (m->type != T_TableAmRoutine)
	{
		*m = *GetHeapamTableAmRoutine();
		m->slot_callbacks = stream_slot_callbacks;
		m->scan_begin = stream_scan_begin;
		m->scan_end = stream_scan_end;
		m->scan_rescan = stream_scan_rescan;
		m->scan_getnextslot = stream_getnextslot;
		m->scan_set_tidrange = NULL;
		m->scan_getnextslot_tidrange = NULL;
		m->index_fetch_begin = stream_index_begin;
		m->index_fetch_reset = stream_index_none;
		m->index_fetch_end = stream_index_none;
		m->index_fetch_tuple = stream_index_fetch;
		m->tuple_fetch_row_version = stream_fetch;
		m->tuple_tid_valid = stream_tid_valid;
		m->tuple_get_latest_tid = stream_latest_tid;
		m->tuple_satisfies_snapshot = stream_satisfies;
		m->index_delete_tuples = stream_index_delete;
		m->tuple_insert = stream_tuple_insert;
		m->tuple_insert_speculative = stream_speculative;
		m->tuple_complete_speculative = stream_complete;
		m->multi_insert = stream_multi_insert;
		m->tuple_delete = stream_delete;
		m->tuple_update = stream_update;
		m->tuple_lock = stream_lock;
		m->finish_bulk_insert = NULL;
		m->relation_set_new_filelocator = stream_new_file;
		m->relation_nontransactional_truncate = stream_truncate;
		m->relation_copy_data = stream_copy_data;
		m->relation_copy_for_cluster = stream_copy_cluster;
		m->relation_vacuum = stream_vacuum;
		m->scan_analyze_next_block = stream_analyze_block;
		m->scan_analyze_next_tuple = stream_analyze_tuple;
		m->index_build_range_scan = stream_index_build;
		m->index_validate_scan = stream_index_validate;
		m->relation_needs_toast_table = stream_needs_toast;
		m->relation_estimate_size = stream_estimate;
		m->scan_sample_next_block = stream_sample_block;
		m->scan_sample_next_tuple = stream_sample_tuple;
	}
	PG_RETURN_POINTER(m);
}
