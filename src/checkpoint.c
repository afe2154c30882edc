/*-------------------------------------------------------------------------
 *
 * checkpoint.c
 *	  State + log position saved as one; load it; replay starts there.
 *
 * Relies on: the caller is the only writer of the view's state; catalog.c
 * updates exactly the version of the position row that was last read or
 * written, so of two owners of a view one gives up.
 *
 * Guarantees: the final rows, the blobs and the position row of a checkpoint
 * become visible together, and they are those of one publish.  A checkpoint
 * that fails leaves nothing but the stamp of an aborted transaction.
 *
 * A row of weir.view_state is one blob:
 *
 *	view, generation
 *	seq			number of the checkpoint that wrote it
 *	max_pane	largest pane in it; when that is closed the whole blob is dead
 *	ngroups
 *	data		the bytes below, about 8 kB so that the row fills a page; a
 *				single larger group makes a larger blob, which is toasted
 *
 * data, all integers in the byte order of the machine (as the server's own
 * files), offsets from its first byte:
 *
 *	 0	uint32	magic, BLOB_MAGIC
 *	 4	uint16	version, WEIR_BLOB_FORMAT
 *	 6	uint16	zero
 *	 8	int32	server major that wrote it, for whoever looks into it
 *	12	uint32	OID of the view
 *	16	int64	generation
 *	24	int64	seq
 *	32	uint32	ngroups
 *	36	uint32	length of all
 *	40	uint32	zero
 *	44	uint32	CRC-32C of all other bytes, then of max_pane
 *	48	the groups, each: int64 pane, uint32 keylen, uint32 statelen, key,
 *		state; key and state each padded with zeroes to 8 bytes
 *
 * A group may be in several blobs; of those with a seq up to the position row's
 * the largest counts.  Its key has the same bytes in all of them, because a group
 * keeps the key it was made with.  Groups of panes up to closed_before do not count
 * (they are in the heap), so that closing a pane need not touch its blobs.  When
 * the blobs have grown to twice the live state, dead ones are deleted and, if that
 * does not help, all groups are written again.  What has written all groups, be it
 * because all have changed, deletes what is older.
 *
 * Ahead of a checkpoint: while it is being written the view's batches wait.  So if
 * there is much to write, passes go through the dirty groups before, in slices
 * between batches, each a transaction of its own.  Their blobs have larger seqs
 * than the position row, and count for nothing: who reads passes over them.  A
 * group that is written after a pass has begun is dirty still; the pass leaves it
 * out if it meets it, so that none is there twice with one seq, and the next pass
 * or the checkpoint has it with a larger one.
 * So once the position row has a seq larger than all of them, each group's newest
 * version is what it is at that position.
 * What a dead process has left (its seqs are not known any more) is deleted by the
 * first checkpoint of its successor, which writes nothing ahead before that; and
 * only who holds the newest version of the position row writes ahead, so nobody
 * adds to it behind the successor's back.
 *
 * The layout of the states (aggregate.c) is in the position row, compared before
 * anything is loaded.  It says what there is to say of versions of the server:
 * after pg_upgrade the blobs of the old one are read, and those of the new one
 * stand beside them.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/detoast.h"
#include "access/genam.h"
#include "access/heapam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/xact.h"
#include "catalog/indexing.h"
#include "catalog/pg_type.h"
#include "common/hashfn.h"
#include "miscadmin.h"
#include "port/pg_crc32c.h"
#include "storage/lmgr.h"
#include "storage/procarray.h"
#include "utils/fmgroids.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"

#include "catalog.h"
#include "checkpoint.h"
#include "compat.h"
#include "debug.h"

#define BLOB_MAGIC 0x57424c42 /* "BLBW" on a little-endian machine */

/* Payload of a blob whose row fills a page and is not toasted. */
#define BLOB_TARGET 7960

/* Dead bytes below this are not worth a rewrite. */
#define SLACK_BYTES (1024 * 1024)

/* Blobs of so many bytes are read, then loaded. */
#define LOAD_BYTES (1024 * 1024)

typedef struct BlobHeader
{
	uint32 magic;
	uint16 version;
	uint16 zero;
	int32 server_major;
	Oid view;
	int64 generation;
	int64 seq;
	uint32 ngroups;
	uint32 length;
	uint32 zero2;
	uint32 crc;
} BlobHeader;

typedef struct BlobGroup
{
	int64 pane;
	uint32 keylen;
	uint32 statelen;
} BlobGroup;

StaticAssertDecl(sizeof(BlobHeader) == 48, "blob header has holes");
StaticAssertDecl(sizeof(BlobGroup) == 16, "blob group has holes");

enum
{
	Anum_state_view = 1,
	Anum_state_generation,
	Anum_state_seq,
	Anum_state_max_pane,
	Anum_state_ngroups,
	Anum_state_data,
	Natts_state = Anum_state_data
};

static uint32
blob_crc(const char *blob, Size len, int64 max_pane)
{
	pg_crc32c crc;

	INIT_CRC32C(crc);
	COMP_CRC32C(crc, blob, offsetof(BlobHeader, crc));
	COMP_CRC32C(crc, blob + sizeof(BlobHeader), len - sizeof(BlobHeader));
	COMP_CRC32C(crc, &max_pane, sizeof(max_pane));
	FIN_CRC32C(crc);
	return crc;
}

static const char *checked_blob(const WeirPositionRow *row, Relation rel,
								HeapTuple tuple);

static const char *
view_name(Oid view)
{
	const char *name = get_rel_name(view);

	return name ? name : psprintf("%u", view);
}


/* ---------- writing ---------- */

/*
 * The blob being filled, and where it goes.
 */
typedef struct BlobWriter
{
	Oid view;
	int64 generation;
	int64 seq;
	Relation rel;
	CatalogIndexState indexes;
	MemoryContext row_cxt;
	char *buf; /* MAXALIGNed */
	Size size; /* allocated */
	Size used;
	uint32 ngroups;
	int64 max_pane;
	int64 bytes;  /* of all blobs written */
	uint64 total; /* groups in them */
} BlobWriter;

static void
start_blob(BlobWriter *w)
{
	w->used = sizeof(BlobHeader);
	w->ngroups = 0;
	w->max_pane = PG_INT64_MIN;
}

static void
write_blob(BlobWriter *w)
{
	BlobHeader *h = (BlobHeader *) w->buf;
	Datum values[Natts_state];
	bool nulls[Natts_state] = {false};
	HeapTuple tuple;
	bytea *data;
	MemoryContext old;

	if (w->ngroups == 0)
		return;
	CHECK_FOR_INTERRUPTS();
	MemSet(h, 0, sizeof(*h));
	h->magic = BLOB_MAGIC;
	h->version = WEIR_BLOB_FORMAT;
	h->server_major = WEIR_SERVER_MAJOR;
	h->view = w->view;
	h->generation = w->generation;
	h->seq = w->seq;
	h->ngroups = w->ngroups;
	h->length = w->used;
	h->crc = blob_crc(w->buf, w->used, w->max_pane);

	old = MemoryContextSwitchTo(w->row_cxt);
	data = palloc(VARHDRSZ + w->used);
	SET_VARSIZE(data, VARHDRSZ + w->used);
	memcpy(VARDATA(data), w->buf, w->used);
	values[Anum_state_view - 1] = ObjectIdGetDatum(h->view);
	values[Anum_state_generation - 1] = Int64GetDatum(h->generation);
	values[Anum_state_seq - 1] = Int64GetDatum(w->seq);
	values[Anum_state_max_pane - 1] = Int64GetDatum(w->max_pane);
	values[Anum_state_ngroups - 1] = Int32GetDatum((int32) w->ngroups);
	values[Anum_state_data - 1] = PointerGetDatum(data);
	tuple = heap_form_tuple(RelationGetDescr(w->rel), values, nulls);
	CatalogTupleInsertWithInfo(w->rel, tuple, w->indexes);
	MemoryContextSwitchTo(old);
	MemoryContextReset(w->row_cxt);

	w->bytes += w->used;
	w->total += w->ngroups;
	start_blob(w);
}

static void
write_group(const WeirGroup *g, void *arg)
{
	BlobWriter *w = arg;
	Size need;
	BlobGroup head;
	char *p;

	need = sizeof(BlobGroup) + MAXALIGN(g->keylen) + MAXALIGN(g->statelen);
	if (w->used + need > BLOB_TARGET)
		write_blob(w);
	if (w->used + need > MaxAllocSize - VARHDRSZ - BLCKSZ)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("a group of continuous view \"%s\" is too large to be "
						"checkpointed",
						view_name(w->view)),
				 errdetail("Its aggregate state has %zu bytes.", g->statelen)));
	if (w->used + need > w->size)
	{
		w->size = w->used + need;
		w->buf = repalloc(w->buf, w->size);
	}

	head.pane = g->pane;
	head.keylen = g->keylen;
	head.statelen = g->statelen;
	p = w->buf + w->used;
	memset(p, 0, need);
	memcpy(p, &head, sizeof(head));
	p += sizeof(head);
	memcpy(p, g->key, g->keylen);
	memcpy(p + MAXALIGN(g->keylen), g->state, g->statelen);
	w->used += need;
	w->ngroups++;
	w->max_pane = Max(w->max_pane, g->pane);
}

/* Writes as the checkpoint that the row is about. */
static void
open_writer(BlobWriter *w, const WeirPositionRow *row)
{
	w->view = row->view;
	w->generation = row->generation;
	w->seq = row->checkpoint_seq;
	w->rel = weir_catalog_open("view_state", Natts_state, RowExclusiveLock);
	w->indexes = CatalogOpenIndexes(w->rel);
	w->row_cxt = AllocSetContextCreate(CurrentMemoryContext, "weir blob",
									   ALLOCSET_DEFAULT_SIZES);
	w->size = BLCKSZ;
	w->buf = palloc(w->size);
	w->bytes = 0;
	start_blob(w);
}

static void
close_writer(BlobWriter *w)
{
	CatalogCloseIndexes(w->indexes);
	table_close(w->rel, NoLock);
}

static void
blob_keys(ScanKey keys, Oid view, int64 generation)
{
	ScanKeyInit(&keys[0], Anum_state_view, BTEqualStrategyNumber, F_OIDEQ,
				ObjectIdGetDatum(view));
	ScanKeyInit(&keys[1], Anum_state_generation, BTEqualStrategyNumber,
				F_INT8EQ, Int64GetDatum(generation));
}

/* Bytes of the data column, without fetching it. */
static Size
blob_size(HeapTuple tuple, TupleDesc desc)
{
	bool isnull;
	Datum data = heap_getattr(tuple, Anum_state_data, desc, &isnull);

	return isnull ? 0 : toast_raw_datum_size(data) - VARHDRSZ;
}

/*
 * Delete blobs of panes up to row->closed_before, those with a seq below
 * "below", and those above "above".  Returns the bytes that remain.
 */
static int64
prune_blobs(Relation rel, const WeirPositionRow *row, int64 below, int64 above)
{
	ScanKeyData keys[2];
	SysScanDesc scan;
	HeapTuple tuple;
	int64 closed_before = row->closed_before;
	int64 remain = 0;

	blob_keys(keys, row->view, row->generation);
	scan = systable_beginscan(rel, weir_catalog_table("view_state_idx"), true,
							  GetActiveSnapshot(), 2, keys);
	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		TupleDesc desc = RelationGetDescr(rel);
		bool isnull;
		int64 seq =
			DatumGetInt64(heap_getattr(tuple, Anum_state_seq, desc, &isnull));
		int64 max_pane = DatumGetInt64(
			heap_getattr(tuple, Anum_state_max_pane, desc, &isnull));

		CHECK_FOR_INTERRUPTS();
		if (seq < below)
			CatalogTupleDelete(rel, &tuple->t_self);
		else if (seq > above ||
				 (closed_before != PG_INT64_MIN && max_pane <= closed_before))
		{
			/* gone for good if seq or max_pane is not what was written */
			pfree(unconstify(char *, checked_blob(row, rel, tuple)));
			CatalogTupleDelete(rel, &tuple->t_self);
		}
		else
			remain += blob_size(tuple, desc);
	}
	systable_endscan(scan);
	/* the same transaction may prune again: it must not meet these any more */
	CommandCounterIncrement();
	UpdateActiveSnapshotCommandId();
	return remain;
}

/* More than this is worth a rewrite. */
static int64
enough_bytes(const WeirCheckpoint *c)
{
	return SLACK_BYTES + 2 * (int64) pg_atomic_read_u64(&c->v->state_bytes);
}

/* Moves windows to the heap; false: none closes. */
static bool
close_windows(WeirCheckpoint *c, int64 final_before, int64 *rows)
{
	TransactionId xid = GetTopTransactionId();

	*rows = 0;
	if (final_before == PG_INT64_MIN || !c->closable(c->arg, final_before))
		return false;

	/*
	 * The stamp goes first: a reader either finds the panes unstamped in its
	 * cut, or stamped by a transaction that its snapshot cannot see, or its
	 * snapshot sees the rows in the heap.
	 */
	weir_state_stamp(c->state, final_before, xid, c->overlap);
	weir_debug_point("checkpoint-stamped");
	*rows = c->close_windows(c->arg, final_before, xid);
	CommandCounterIncrement();
	return true;
}

bool
weir_checkpoint_close(WeirCheckpoint *c, int64 final_before)
{
	int64 rows;
	bool closes = close_windows(c, final_before, &rows);

	if (final_before != PG_INT64_MIN)
		c->row.closed_before = Max(c->row.closed_before, final_before);
	c->row.final_rows += rows;
	return closes;
}

/* DROP, ALTER and REFRESH hold more; they must not find a half of us. */
static Relation
lock_view(const WeirCheckpoint *c)
{
	Relation view;

	if (!ConditionalLockRelationOid(c->row.view, AccessShareLock))
		ereport(ERROR, (errcode(ERRCODE_LOCK_NOT_AVAILABLE),
						errmsg("could not lock continuous view \"%s\" for its "
							   "checkpoint",
							   view_name(c->row.view))));
	view = try_relation_open(c->row.view, NoLock);
	if (view == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_TABLE),
				 errmsg("continuous view with OID %u does not exist any more",
						c->row.view)));
	return view;
}

bool
weir_checkpoint_run(WeirCheckpoint *c, int64 final_before)
{
	WeirPositionRow row;
	ItemPointerData tid = c->tid;
	TimestampTz start = weir_now();
	BlobWriter w = {0};
	Relation view;
	TransactionId oldest;
	uint64 version;
	int64 blob_bytes = c->blob_bytes;
	int64 rows;
	uint64 after;
	uint64 passed;
	bool ahead;
	bool closes;

	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	view = lock_view(c);
	/* before the snapshot: nobody adds blobs that it does not show */
	if (ItemPointerIsValid(&tid) && !weir_catalog_position_hold(&c->row, &tid))
	{
		AbortCurrentTransaction();
		return false;
	}
	PushActiveSnapshot(GetTransactionSnapshot());
	oldest = c->row.answering ? GetOldestNonRemovableTransactionId(view)
							  : ReadNextTransactionId();
	relation_close(view, NoLock);
	weir_state_sweep(c->state, oldest);

	weir_debug_point("checkpoint-start");
	if (c->parts)
		final_before = c->parts(c->arg);
	closes = close_windows(c, final_before, &rows);
	row = c->row;
	row.checkpoint_seq = Max(row.checkpoint_seq, c->ahead.seq) + 1;
	if (final_before != PG_INT64_MIN)
		row.closed_before = Max(row.closed_before, final_before);
	row.final_rows += rows;
	weir_debug_point("checkpoint-closed");

	version = weir_state_version(c->state);
	open_writer(&w, &row);

	if (blob_bytes < 0)
		blob_bytes =
			prune_blobs(w.rel, &row, PG_INT64_MIN, c->row.checkpoint_seq);
	ahead = c->ahead.through != 0 && (!c->full || c->ahead.full_seq != 0);
	if (!ahead && !c->full && blob_bytes > SLACK_BYTES)
	{
		if (blob_bytes > enough_bytes(c))
			blob_bytes = prune_blobs(w.rel, &row, PG_INT64_MIN, PG_INT64_MAX);
		if (blob_bytes > enough_bytes(c))
			c->full = true;
	}
	if (ahead)
		after = c->ahead.through;
	else
		after = c->full ? 0 : weir_state_clean_version(c->state);
	if (ahead && c->ahead.full_seq != 0)
		blob_bytes = prune_blobs(w.rel, &row, c->ahead.full_seq, PG_INT64_MAX);
	else if (c->full)
		blob_bytes = prune_blobs(w.rel, &row, PG_INT64_MAX, PG_INT64_MAX);
	passed = weir_state_walk(c->state, PG_INT64_MAX, after, write_group, &w);
	write_blob(&w);
	if (!ahead && !c->full && passed == 0 && blob_bytes > SLACK_BYTES)
		blob_bytes = prune_blobs(w.rel, &row, row.checkpoint_seq, PG_INT64_MAX);
	blob_bytes += w.bytes;
	close_writer(&w);

	if (c->also)
		c->also(c->arg);

	row.format = WEIR_BLOB_FORMAT;
	row.server_major = WEIR_SERVER_MAJOR;
	row.layout = unconstify(char *, c->layout);
	row.checkpoint_at = weir_now();
	row.checkpoint_us = row.checkpoint_at - start + c->ahead.us;
	row.checkpoint_bytes = w.bytes + c->ahead.bytes;
	weir_debug_point("checkpoint-position");
	if (!weir_catalog_position_put(&row, &tid))
	{
		AbortCurrentTransaction();
		return false;
	}
	PopActiveSnapshot();
	if (c->show)
		c->show(c->arg, row.closed_before);
	weir_debug_point("checkpoint-commit");
	CommitTransactionCommand();

	/*
	 * What is durable is known to be so before anything may raise, or the next
	 * checkpoint would have the same seq.  The strings of row are the caller's
	 * or constants, as in c->row.
	 */
	c->row = row;
	c->tid = tid;
	c->blob_bytes = blob_bytes;
	c->full = false;
	c->writes = weir_state_writes(c->state);
	MemSet(&c->ahead, 0, sizeof(c->ahead));
	weir_state_mark_clean(c->state, version);
	pg_atomic_write_u64(&c->v->final_rows, row.final_rows);
	pg_atomic_write_u64(&c->v->checkpoint_us, row.checkpoint_us);
	pg_atomic_write_u64(&c->v->checkpoint_bytes, row.checkpoint_bytes);
	c->v->checkpoint_at = row.checkpoint_at;
	weir_debug_point("checkpoint-committed");
	if (closes)
		weir_state_sweep(
			c->state, row.answering ? GetOldestNonRemovableTransactionId(NULL)
									: ReadNextTransactionId());
	ereport(DEBUG1, (errmsg_internal(
						"checkpoint %lld of view %u generation %lld: "
						"%lld final rows, %lld bytes of state",
						(long long) row.checkpoint_seq, row.view,
						(long long) row.generation, (long long) row.final_rows,
						(long long) row.checkpoint_bytes)));
	return true;
}

/* ---------- ahead of a checkpoint ---------- */

/* So many groups are worth it; then as many passes at most. */
#ifdef WEIR_DEBUG
#define AHEAD_GROUPS 64
#else
#define AHEAD_GROUPS 8192
#endif
#define AHEAD_PASSES 4

/* At most so many groups were written by publishes after those. */
static uint64
groups_written(const WeirCheckpoint *c, uint64 version, uint64 writes)
{
	uint64 n = Min(weir_state_written(c->state, version),
				   weir_state_writes(c->state) - writes);

	return version == weir_state_clean_version(c->state)
			   ? Min(n, weir_state_dirty(c->state))
			   : n;
}

/* Is there much to write, and far less than the last pass has written? */
static bool
is_worth_a_pass(const WeirCheckpoint *c)
{
	const WeirAhead *a = &c->ahead;
	uint64 ngroups;

	/* only who has written the row, and made sure of what else there is */
	if (!ItemPointerIsValid(&c->tid) || c->blob_bytes < 0)
		return false;
	if (a->through == 0)
		return groups_written(c, weir_state_clean_version(c->state),
							  c->writes) >= AHEAD_GROUPS;
	ngroups = groups_written(c, a->through, a->writes);
	return a->passes < AHEAD_PASSES && ngroups >= AHEAD_GROUPS &&
		   ngroups <= a->ngroups / 2;
}

static void
begin_pass(WeirCheckpoint *c, Relation rel)
{
	WeirAhead *a = &c->ahead;

	a->seq = Max(a->seq, c->row.checkpoint_seq) + 1;
	if (a->passes == 0)
	{
		if (c->blob_bytes > enough_bytes(c))
			c->blob_bytes =
				prune_blobs(rel, &c->row, PG_INT64_MIN, PG_INT64_MAX);
		if (c->full || c->blob_bytes > enough_bytes(c))
			a->full_seq = a->seq;
	}
	a->version = weir_state_version(c->state);
	MemSet(&a->walk, 0, sizeof(a->walk));
	a->walk.through = a->version;
	a->pass_writes = weir_state_writes(c->state);
	a->ngroups = 0;
	a->passes++;
	a->walking = true;
}

/* What the pass under way is to write. */
static uint64
pass_after(const WeirCheckpoint *c)
{
	if (c->ahead.through != 0)
		return c->ahead.through;
	return c->ahead.full_seq != 0 ? 0 : weir_state_clean_version(c->state);
}

bool
weir_checkpoint_ahead(WeirCheckpoint *c, int64 us, bool *more)
{
	WeirAhead *a = &c->ahead;
	ItemPointerData tid = c->tid;
	TimestampTz start = weir_now();
	BlobWriter w = {0};
	bool through;

	*more = false;
	if (!a->walking && !is_worth_a_pass(c))
		return true;

	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	/* if it is lost nothing is; the checkpoint's commit comes after it */
	(void) set_config_option("synchronous_commit", "off", PGC_USERSET,
							 PGC_S_SESSION, GUC_ACTION_LOCAL, true, 0, false);
	relation_close(lock_view(c), NoLock);
	if (!weir_catalog_position_hold(&c->row, &tid))
	{
		AbortCurrentTransaction();
		return false;
	}
	PushActiveSnapshot(GetTransactionSnapshot());
	a->slicing = true;
	open_writer(&w, &c->row);
	if (!a->walking)
		begin_pass(c, w.rel);
	w.seq = a->seq;
	weir_debug_point("ahead-start");
	through = !weir_state_walk_on(c->state, &a->walk, pass_after(c), start + us,
								  write_group, &w);
	write_blob(&w);
	close_writer(&w);
	weir_debug_point("ahead-written");
	PopActiveSnapshot();
	CommitTransactionCommand();

	a->ngroups += w.total;
	a->bytes += w.bytes;
	a->us += weir_now() - start;
	c->blob_bytes += w.bytes;
	if (through)
	{
		a->walking = false;
		a->through = a->version;
		a->writes = a->pass_writes;
		if (a->passes == 1 && a->walk.passed == 0 &&
			c->blob_bytes - a->bytes > SLACK_BYTES)
			a->full_seq = a->seq; /* all were dirty */
	}
	*more = a->walking || is_worth_a_pass(c);
	weir_debug_point("ahead-committed");
	a->slicing = false;
	return true;
}

void
weir_checkpoint_ahead_failed(WeirCheckpoint *c)
{
	if (!c->ahead.slicing)
		return; /* it had not begun */
	/* what was written is nobody's now: the next checkpoint deletes it */
	MemSet(&c->ahead, 0, sizeof(c->ahead));
	c->blob_bytes = -1;
}


/* ---------- a checkpoint that is given ---------- */

struct WeirCheckpointWriter
{
	BlobWriter w;
	WeirPositionRow *row;
	TimestampTz start;
};

WeirCheckpointWriter *
weir_checkpoint_begin(WeirPositionRow *row)
{
	WeirCheckpointWriter *c = palloc0(sizeof(WeirCheckpointWriter));

	c->row = row;
	c->start = weir_now();
	row->checkpoint_seq = 1;
	open_writer(&c->w, row);
	return c;
}

void
weir_checkpoint_add(WeirCheckpointWriter *c, const WeirGroup *g)
{
	write_group(g, &c->w);
}

void
weir_checkpoint_end(WeirCheckpointWriter *c)
{
	WeirPositionRow *row = c->row;
	ItemPointerData tid;

	write_blob(&c->w);
	close_writer(&c->w);
	row->format = WEIR_BLOB_FORMAT;
	row->server_major = WEIR_SERVER_MAJOR;
	row->checkpoint_at = weir_now();
	row->checkpoint_us = row->checkpoint_at - c->start;
	row->checkpoint_bytes = c->w.bytes;
	ItemPointerSetInvalid(&tid);
	(void) weir_catalog_position_put(row, &tid);
}


/* ---------- reading ---------- */

/* Groups seen so far, to skip older versions. */
typedef struct SeenGroup
{
	const BlobGroup *head; /* in a blob that stays in memory */
	uint32 hash;
	char status; /* simplehash's */
} SeenGroup;

static inline const char *
group_key(const BlobGroup *g)
{
	return (const char *) (g + 1);
}

static inline uint32
hash_group(const BlobGroup *g)
{
	uint64 pane = (uint64) g->pane;

	return hash_combine(
		hash_bytes((const unsigned char *) group_key(g), (int) g->keylen),
		murmurhash32((uint32) (pane ^ (pane >> 32))));
}

static inline bool
same_group(const BlobGroup *a, const BlobGroup *b)
{
	return a->pane == b->pane && a->keylen == b->keylen &&
		   memcmp(group_key(a), group_key(b), a->keylen) == 0;
}

#define SH_PREFIX			 seen
#define SH_ELEMENT_TYPE		 SeenGroup
#define SH_KEY_TYPE			 const BlobGroup *
#define SH_KEY				 head
#define SH_HASH_KEY(tb, key) hash_group(key)
#define SH_EQUAL(tb, a, b)	 same_group(a, b)
#define SH_STORE_HASH
#define SH_GET_HASH(tb, a) (a)->hash
#define SH_SCOPE		   static inline
#define SH_DEFINE
#define SH_DECLARE
#include "lib/simplehash.h"

/* What must fit before a blob's states are believed. */
static void
check_position_row(const WeirPositionRow *row, const char *layout)
{
	const char *found = NULL;

	weir_catalog_position_check(row);
	if (row->format != WEIR_BLOB_FORMAT)
		found = psprintf("Format of its checkpoint is %d, this version of "
						 "pg_weir reads %d.",
						 row->format, WEIR_BLOB_FORMAT);
	else if (row->layout == NULL || strcmp(row->layout, layout) != 0)
		found = psprintf("Its aggregates are kept in another form than in its "
						 "checkpoint, which PostgreSQL %d wrote.",
						 row->server_major);
	if (found)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("checkpoint of continuous view \"%s\" cannot be read",
						view_name(row->view)),
				 errdetail_internal("%s", found),
				 errhint("Rebuild it from its stream with REFRESH "
						 "MATERIALIZED VIEW.")));
}

static void
blob_is_damaged(const WeirPositionRow *row, int64 seq, const char *field)
{
	ereport(ERROR,
			(errcode(ERRCODE_DATA_CORRUPTED),
			 errmsg("checkpoint of continuous view \"%s\" is damaged",
					view_name(row->view)),
			 errdetail("Blob with seq %lld of generation %lld has a wrong %s.",
					   (long long) seq, (long long) row->generation, field),
			 errhint("Rebuild it from its stream with REFRESH MATERIALIZED "
					 "VIEW.")));
}

/*
 * Can this be where the blob is?  A wrong length would be followed out of the
 * tuple, a wrong kind of pointer anywhere.  Blobs are not compressed.
 */
static bool
is_in_place(Relation rel, HeapTuple tuple, const char *data)
{
	const char *end = (const char *) tuple->t_data + tuple->t_len;
	Size left = end - data;
	struct varatt_external pointer;

	if (data == NULL || data >= end)
		return false;
	if (!VARATT_IS_EXTERNAL(data))
		return !VARATT_IS_COMPRESSED(data) && VARSIZE_ANY(data) <= left &&
			   VARSIZE_ANY(data) >= sizeof(BlobHeader);
	if (!VARATT_IS_EXTERNAL_ONDISK(data) || left < TOAST_POINTER_SIZE)
		return false;
	VARATT_EXTERNAL_GET_POINTER(pointer, data);
	return pointer.va_toastrelid == rel->rd_rel->reltoastrelid &&
		   pointer.va_rawsize ==
			   (int32) (VARATT_EXTERNAL_GET_EXTSIZE(pointer) + VARHDRSZ);
}

/* An aligned copy of the blob in the current context, checked. */
static const char *
checked_blob(const WeirPositionRow *row, Relation rel, HeapTuple tuple)
{
	TupleDesc desc = RelationGetDescr(rel);
	bool isnull;
	int64 seq;
	int64 max_pane;
	Datum value;
	struct varlena *data;
	Size len;
	char *blob;
	BlobHeader *h;

	seq = DatumGetInt64(heap_getattr(tuple, Anum_state_seq, desc, &isnull));
	max_pane =
		DatumGetInt64(heap_getattr(tuple, Anum_state_max_pane, desc, &isnull));
	value = heap_getattr(tuple, Anum_state_data, desc, &isnull);
	if (!is_in_place(rel, tuple, isnull ? NULL : DatumGetPointer(value)))
		blob_is_damaged(row, seq, "place");
	data = PG_DETOAST_DATUM_PACKED(value);
	len = VARSIZE_ANY_EXHDR(data);
	if (len < sizeof(BlobHeader))
		blob_is_damaged(row, seq, "length");
	blob = palloc(len);
	memcpy(blob, VARDATA_ANY(data), len);
	h = (BlobHeader *) blob;
	if (h->magic != BLOB_MAGIC)
		blob_is_damaged(row, seq, "magic number");
	if (h->version != WEIR_BLOB_FORMAT)
		blob_is_damaged(row, seq, "version");
	if (h->length != len)
		blob_is_damaged(row, seq, "length");
	if (h->crc != blob_crc(blob, len, max_pane))
		blob_is_damaged(row, seq, "checksum");
	if (h->view != row->view || h->generation != row->generation ||
		h->seq != seq)
		blob_is_damaged(row, seq, "owner");
	return blob;
}

/* The group at *offset, and step over it. */
static const BlobGroup *
next_group(const WeirPositionRow *row, const char *blob, Size *offset)
{
	const BlobHeader *h = (const BlobHeader *) blob;
	const BlobGroup *g = (const BlobGroup *) (blob + *offset);
	Size need;

	if (h->length - *offset < sizeof(BlobGroup))
		blob_is_damaged(row, h->seq, "number of groups");
	need = sizeof(BlobGroup) + MAXALIGN((Size) g->keylen) +
		   MAXALIGN((Size) g->statelen);
	if (h->length - *offset < need)
		blob_is_damaged(row, h->seq, "group length");
	*offset += need;
	return g;
}

/* What there is to read. */
typedef struct BlobCount
{
	/*
	 * About so many groups of one checkpoint, where they are most; what a row
	 * says of its blob is not under the checksum, but believed up to its size only.
	 */
	uint64 ngroups;
	int64 oldest;  /* checkpoint of which there is something */
	bool several;  /* checkpoints, perhaps of the same group */
	bool one_pane; /* perhaps: all blobs end with the same */
} BlobCount;

static void
count_groups(const WeirPositionRow *row, Relation rel, Relation index,
			 Snapshot snapshot, ScanKey keys, BlobCount *count)
{
	TupleDesc desc = RelationGetDescr(rel);
	SysScanDesc scan =
		systable_beginscan_ordered(rel, index, snapshot, 2, keys);
	HeapTuple tuple;
	int64 last_seq = 0;
	int64 first_pane = 0;
	uint64 of_seq = 0; /* groups */
	bool any = false;

	count->ngroups = 0;
	count->oldest = 0;
	count->several = false;
	count->one_pane = true;
	while (HeapTupleIsValid(
		tuple = systable_getnext_ordered(scan, ForwardScanDirection)))
	{
		bool isnull;
		int64 seq =
			DatumGetInt64(heap_getattr(tuple, Anum_state_seq, desc, &isnull));
		int64 pane = DatumGetInt64(
			heap_getattr(tuple, Anum_state_max_pane, desc, &isnull));
		Datum data;
		uint32 ngroups;

		CHECK_FOR_INTERRUPTS();
		if (seq > row->checkpoint_seq)
			continue;
		ngroups = (uint32) DatumGetInt32(
			heap_getattr(tuple, Anum_state_ngroups, desc, &isnull));
		data = heap_getattr(tuple, Anum_state_data, desc, &isnull);
		if (!is_in_place(rel, tuple, isnull ? NULL : DatumGetPointer(data)))
			blob_is_damaged(row, seq, "place");
		if (!any)
			count->oldest = seq;
		else if (seq != last_seq)
		{
			count->several = true;
			of_seq = 0;
		}
		of_seq += Min(ngroups, blob_size(tuple, desc) / sizeof(BlobGroup));
		count->ngroups = Max(count->ngroups, of_seq);
		if (any && pane != first_pane)
			count->one_pane = false;
		last_seq = seq;
		first_pane = pane;
		any = true;
	}
	systable_endscan_ordered(scan);
}

/* Takes what has been called back with: the bytes go. */
typedef void (*BlobCallback)(const BlobCount *count, void *arg);

/* A reading of the row's generation. */
typedef struct BlobReader
{
	const WeirPositionRow *row;
	BlobCount count;
	struct seen_hash *seen; /* NULL: nothing can come twice */
	WeirGroupCallback callback;
	void *arg;
} BlobReader;

/* So many groups are looked up at a time, while memory is on its way. */
#define LOOK_UP_AT_ONCE 64

/*
 * Call back with the groups of a blob of which no newer version has come.
 * Returns whether the bytes are needed: there was one, or it is remembered.
 */
static bool
read_groups(BlobReader *r, const char *blob)
{
	const BlobHeader *h = (const BlobHeader *) blob;
	struct seen_hash *seen = r->seen;
	bool last = h->seq == r->count.oldest; /* nothing older follows */
	bool needed = false;
	Size offset = sizeof(BlobHeader);
	uint32 at = 0;

	while (at < h->ngroups)
	{
		const BlobGroup *groups[LOOK_UP_AT_ONCE];
		uint32 hashes[LOOK_UP_AT_ONCE];
		int n = 0;

		for (; n < LOOK_UP_AT_ONCE && at < h->ngroups; at++)
		{
			const BlobGroup *b = next_group(r->row, blob, &offset);

			if (r->row->closed_before != PG_INT64_MIN &&
				b->pane <= r->row->closed_before)
				continue;
			if (seen != NULL)
			{
				hashes[n] = hash_group(b);
				__builtin_prefetch(&seen->data[hashes[n] & seen->sizemask]);
			}
			groups[n++] = b;
		}
		for (int i = 0; i < n; i++)
		{
			const BlobGroup *b = groups[i];
			WeirGroup g = {0};
			bool found = false;

			if (seen != NULL && last)
				found = seen_lookup_hash(seen, b, hashes[i]) != NULL;
			else if (seen != NULL)
				(void) seen_insert_hash(seen, b, hashes[i], &found);
			if (found)
				continue;
			needed = true;
			g.pane = b->pane;
			g.keylen = b->keylen;
			g.statelen = b->statelen;
			g.key = group_key(b);
			g.state = g.key + MAXALIGN((Size) b->keylen);
			r->callback(&g, r->arg);
		}
	}
	if (offset != h->length)
		blob_is_damaged(r->row, h->seq, "number of groups");
	return needed;
}

/*
 * Call back with each group of the row's generation once, in its newest
 * version.  The bytes stay in the current context; or, with taken, which is
 * called now and then and at the end, until that call.
 */
static void
read_blobs(const WeirPositionRow *row, Snapshot snapshot,
		   WeirGroupCallback callback, BlobCallback taken, void *arg)
{
	BlobReader r = {.row = row, .callback = callback, .arg = arg};
	MemoryContext cxt = CurrentMemoryContext;
	MemoryContext last_cxt = cxt; /* of what is not in "seen" */
	Relation rel;
	Relation index;
	ScanKeyData keys[2];
	SysScanDesc scan;
	HeapTuple tuple;
	Size waiting = 0; /* bytes of blobs that are not taken */

	rel = weir_catalog_open("view_state", Natts_state, AccessShareLock);
	index = index_open(weir_catalog_table("view_state_idx"), AccessShareLock);
	blob_keys(keys, row->view, row->generation);
	count_groups(row, rel, index, snapshot, keys, &r.count);
	if (r.count.several)
		r.seen = seen_create(
			cxt, (uint32) Min(r.count.ngroups + 1, PG_INT32_MAX / 4), NULL);
	if (taken != NULL)
		/* a reset keeps the first block, which is enough for most */
		last_cxt = AllocSetContextCreate(
			cxt, "weir blobs", LOAD_BYTES + LOAD_BYTES / 4,
			ALLOCSET_DEFAULT_INITSIZE, ALLOCSET_DEFAULT_MAXSIZE);
	scan = systable_beginscan_ordered(rel, index, snapshot, 2, keys);

	/* newest first: what comes later of a group is older */
	while (HeapTupleIsValid(
		tuple = systable_getnext_ordered(scan, BackwardScanDirection)))
	{
		TupleDesc desc = RelationGetDescr(rel);
		bool isnull;
		int64 seq =
			DatumGetInt64(heap_getattr(tuple, Anum_state_seq, desc, &isnull));
		const char *blob;

		CHECK_FOR_INTERRUPTS();
		MemoryContextSwitchTo(seq == r.count.oldest ? last_cxt : cxt);
		blob = checked_blob(row, rel, tuple);
		MemoryContextSwitchTo(cxt);
		/* written ahead of a checkpoint that is not there; or all outdated */
		if (seq > row->checkpoint_seq || !read_groups(&r, blob))
		{
			pfree(unconstify(char *, blob));
			continue;
		}
		waiting += ((const BlobHeader *) blob)->length;
		if (taken != NULL && waiting >= LOAD_BYTES)
		{
			taken(&r.count, arg);
			waiting = 0;
			MemoryContextReset(last_cxt);
		}
	}
	if (taken != NULL)
	{
		taken(&r.count, arg);
		MemoryContextDelete(last_cxt);
	}
	systable_endscan_ordered(scan);
	if (r.seen != NULL)
		seen_destroy(r.seen);
	index_close(index, AccessShareLock);
	table_close(rel, AccessShareLock);
}

typedef struct Loading
{
	WeirState *state;
	WeirLoadGroup load;
	void *arg;
	bool told; /* the state, how much will come */
	WeirPut *puts;
	Size n;
	Size size;
} Loading;

static void
load_group(const WeirGroup *g, void *arg)
{
	Loading *l = arg;
	WeirPut *put;

	if (l->n == l->size)
	{
		l->size *= 2;
		l->puts = repalloc_huge(l->puts, l->size * sizeof(WeirPut));
	}
	put = &l->puts[l->n];
	MemSet(put, 0, sizeof(*put));
	put->group = *g;
	put->ref = InvalidDsaPointer;
	if (l->load(&put->group, l->arg))
		l->n++;
}

/* BlobCallback */
static void
publish_loaded(const BlobCount *count, void *arg)
{
	Loading *l = arg;

	Ensure(l->n <= PG_INT32_MAX, "too many groups in a part of a checkpoint");
	if (count->one_pane && !l->told)
		weir_state_expect(l->state, count->ngroups);
	l->told = true;
	weir_state_reserve(l->state, l->puts, (int) l->n);
	/* its position is that of the whole, and there only with the last */
	weir_state_publish(l->state, l->puts, (int) l->n, WEIR_NO_NUMBER,
					   WEIR_NO_TIME);
	l->n = 0;
}

/*
 * By many publishes: nobody can see a part of it before weir_state_loaded().  So
 * this process needs no memory for all of a checkpoint; of several it does, to
 * tell which is a group's newest version.
 */
void
weir_checkpoint_load(const WeirPositionRow *row, WeirState *state,
					 const char *layout, Snapshot snapshot, WeirLoadGroup load,
					 void *arg)
{
	MemoryContext cxt;
	MemoryContext old;
	Loading l = {.state = state, .load = load, .arg = arg};
	uint64 version;

	check_position_row(row, layout);
	cxt = AllocSetContextCreate(CurrentMemoryContext, "weir load",
								ALLOCSET_DEFAULT_SIZES);
	old = MemoryContextSwitchTo(cxt);
	l.size = 1024;
	l.puts = palloc(l.size * sizeof(WeirPut));
	snapshot = RegisterSnapshot(snapshot ? snapshot : GetLatestSnapshot());
	read_blobs(row, snapshot, load_group, publish_loaded, &l);
	UnregisterSnapshot(snapshot);
	weir_state_expect(state, 0);
	weir_state_publish(state, NULL, 0, row->position, row->watermark);
	version = weir_state_version(state);
	weir_state_mark_clean(state, version);
	weir_state_set_swept(state, row->closed_before);
	MemoryContextSwitchTo(old);
	MemoryContextDelete(cxt);
}

bool
weir_checkpoint_read(Oid view, const char *layout, Snapshot snapshot,
					 WeirGroupCallback callback, void *arg,
					 WeirPosition *position, TimestampTz *watermark,
					 int64 *closed)
{
	WeirPositionRow row;

	if (!weir_catalog_position_get(view, -1, snapshot, &row, NULL))
		return false;
	check_position_row(&row, layout);
	*position = row.position;
	*watermark = row.watermark;
	*closed = row.closed_before;
	read_blobs(&row, snapshot, callback, NULL, arg);
	return true;
}
