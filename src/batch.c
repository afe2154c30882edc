/*-------------------------------------------------------------------------
 *
 * batch.c
 *	  Some transactions of a stream on their way through the views that stand
 *	  at the same position: decoded once, folded by each, published by each.
 *
 * Relies on: the caller has a transaction, the stream locked, and the reader
 * polled; the flows' plans are up to date or are made so by begin.
 *
 * A batch is whole transactions below the horizon, some BATCH_ROWS rows, or one;
 * fewer for a view whose memory was not enough, then without one that is larger
 * behind smaller ones.
 * For every slice of their chunks: decode, then let each view fold it.  Then
 * publish each view.
 *
 * Guarantees: each step of each view is a subtransaction; an error discards what
 * that view has folded of this batch and puts it out of it, at its old position,
 * with a verdict.  The others never notice.
 *
 * Verdicts.  An error that says nothing about the events (a lock, memory, a
 * cancel) means LATER.  Any other may be an event's fault: the view is to go
 * through the same transactions AGAIN, one at a time and row by row
 * (member->careful), and then knows which event it is.  With on_error = skip the
 * event is left out from then on (member->skips), AGAIN; with stop the view has
 * FAILED.  What only user code calls transient (weir_batch_is_claim) means LATER
 * so many times for one event, and then is that event's fault.
 *
 * A transaction whose groups do not fit into memory, although its windows would
 * be final after it, goes through again IN_PARTS: weir_batch_run_in_parts, for
 * one view, in a transaction of its own, without subtransactions (the rows it
 * writes are found by its xid).  Its events are read in log order; the smallest
 * event time in the chunks still to come, known from their headers, says which
 * windows are complete.  So history in order of time needs little memory however
 * long it is, and history in no order needs as much as before.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/relation.h"
#include "access/xact.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "nodes/bitmapset.h"
#include "port/pg_bitutils.h"
#include "storage/lmgr.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/resowner.h"
#include "utils/snapmgr.h"
#include "utils/typcache.h"

#include "batch.h"
#include "chunk.h"
#include "compat.h"
#include "debug.h"
#include "flow.h"
#include "guc.h"
#include "log_reader.h"
#include "secure.h"
#include "stream.h"

#define BATCH_ROWS		65536
#define BATCH_BYTES		(32 * 1024 * 1024)
#define BATCH_TXNS		20000
#define LEAST_PART_ROWS 256 /* smaller parts would not help */
#define SLICE_CHUNKS	32	/* decoded, they should stay in the cache */
#define SLICE_BYTES		(4 * 1024 * 1024)

typedef enum Step
{
	STEP_BEGIN,
	STEP_SLICE,
	STEP_PUBLISH
} Step;

typedef struct Batch
{
	Oid stream;
	Relation rel;
	WeirLogReader *reader;
	Snapshot snapshot;
	MemoryContext cxt;
	WeirTxn *txns;
	TimestampTz *published; /* per txn */
	int ntxns;
	uint64 nrows;
	uint64 nbytes;
	List *members;	/* still in it */
	bool exhausted; /* a view has failed because state_memory is full */

	/* where reading stands */
	int txn; /* index of the one being read */
	WeirChunkCursor *cursor;
	int chunk_in_txn;
	TimestampTz watermark; /* before txns[txn] */
	bool by_arrival;	   /* it is that of windows over now() */

	/* the slice */
	WeirSlice slice;
	WeirSliceChunk chunks[SLICE_CHUNKS];
	TimestampTz watermarks[SLICE_CHUNKS];
	TimestampTz arrivals[SLICE_CHUNKS];
	int txn_of[SLICE_CHUNKS];
	int number_in_txn[SLICE_CHUNKS];
	char *images[SLICE_CHUNKS];
	Size lengths[SLICE_CHUNKS];
	MemoryContext slice_cxt;
	uint64 slice_max;  /* rows after which a slice ends */
	uint64 slice_rows; /* of the one at hand */

	bool one_number; /* take no more */

	/* of a transaction in parts */
	Step step;
	uint64 part_rows;
} Batch;

/*
 * Decoders, kept from batch to batch while they fit.
 */
static struct
{
	MemoryContext cxt;
	bool large; /* one has unpacked more than a slice should have */
	Oid stream;
	TupleDesc desc;
	Bitmapset *needed;
	WeirChunkReader *readers[SLICE_CHUNKS];
} decoders;

bool
weir_batch_is_transient(const ErrorData *e)
{
	switch (ERRCODE_TO_CATEGORY(e->sqlerrcode))
	{
		case ERRCODE_TRANSACTION_ROLLBACK:
		case ERRCODE_INSUFFICIENT_RESOURCES:
		case ERRCODE_OPERATOR_INTERVENTION:
		case ERRCODE_SYSTEM_ERROR:
		case ERRCODE_CONNECTION_EXCEPTION:
			return true;
	}
	return e->sqlerrcode == ERRCODE_LOCK_NOT_AVAILABLE ||
		   e->sqlerrcode == ERRCODE_T_R_SERIALIZATION_FAILURE;
}

/* Procedural languages have a text domain of their own, the server has one. */
bool
weir_batch_is_claim(const ErrorData *e)
{
	switch (ERRCODE_TO_CATEGORY(e->sqlerrcode))
	{
		case ERRCODE_CONNECTION_EXCEPTION:
		case ERRCODE_TRANSACTION_ROLLBACK:
		case ERRCODE_SYSTEM_ERROR:
			return e->domain != NULL &&
				   strcmp(e->domain, PG_TEXTDOMAIN("postgres")) != 0;
	}
	return false;
}

static void
forget_decoders(void)
{
	if (decoders.cxt != NULL)
		MemoryContextDelete(decoders.cxt);
	memset(&decoders, 0, sizeof(decoders));
}

static void
prepare_decoders(Batch *b)
{
	Bitmapset *needed = NULL;
	TupleDesc desc = RelationGetDescr(b->rel);
	MemoryContext old;
	ListCell *lc;

	foreach(lc, b->members)
		needed = bms_add_members(
			needed,
			((WeirBatchMember *) lfirst(lc))->flow->plan->stream_columns);
	if (needed == NULL)
		needed = bms_make_singleton(1); /* none would mean all */
	if (decoders.cxt != NULL && !decoders.large &&
		decoders.stream == b->stream && bms_equal(decoders.needed, needed) &&
		equalTupleDescs(decoders.desc, desc))
		return;

	forget_decoders();
	decoders.cxt = AllocSetContextCreate(TopMemoryContext, "weir decoders",
										 ALLOCSET_DEFAULT_SIZES);
	old = MemoryContextSwitchTo(decoders.cxt);
	decoders.desc = CreateTupleDescCopyConstr(desc);
	decoders.needed = bms_copy(needed);
	for (int i = 0; i < SLICE_CHUNKS; i++)
		decoders.readers[i] =
			weir_chunk_reader_create(decoders.desc, decoders.needed);
	decoders.stream = b->stream; /* now they are complete */
	MemoryContextSwitchTo(old);
}

Relation
weir_batch_open_stream(Oid stream)
{
	Relation rel;

	if (!ConditionalLockRelationOid(stream, AccessShareLock))
		ereport(ERROR, (errcode(ERRCODE_LOCK_NOT_AVAILABLE),
						errmsg("could not lock stream %u", stream)));
	rel = try_relation_open(stream, NoLock);
	if (rel == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_TABLE),
				 errmsg("stream with OID %u does not exist any more", stream)));
	return rel;
}

/*
 * Take transactions from the reader: at least one if there is any, and all that
 * share a number.  limit: not beyond this number.
 */
static void
take_transactions(Batch *b, WeirNumber limit)
{
	bool careful = b->one_number;
	uint64 max_rows = BATCH_ROWS;
	int space = 16;
	WeirTxn txn;
	TimestampTz published;
	ListCell *lc;

	foreach(lc, b->members)
	{
		const WeirBatchMember *m = lfirst(lc);

		careful = careful || m->careful != WEIR_NO_NUMBER;
		if (m->max_rows > 0)
			max_rows = Min(max_rows, m->max_rows);
	}
	b->txns = palloc(space * sizeof(WeirTxn));
	b->published = palloc(space * sizeof(TimestampTz));
	while (weir_log_reader_peek(b->reader, &txn, &published))
	{
		if (txn.number > limit)
			break;
		if (b->ntxns > 0 && txn.number != b->txns[b->ntxns - 1].number &&
			(careful || b->nrows >= max_rows ||
			 (max_rows < BATCH_ROWS && b->nrows + txn.nrows > max_rows) ||
			 b->nbytes >= BATCH_BYTES || b->ntxns >= BATCH_TXNS))
			break;
		if (b->ntxns == space)
		{
			space *= 2;
			b->txns = repalloc_huge(b->txns, space * sizeof(WeirTxn));
			b->published =
				repalloc_huge(b->published, space * sizeof(TimestampTz));
		}
		b->txns[b->ntxns] = txn;
		b->published[b->ntxns++] = published;
		b->nrows += txn.nrows;
		b->nbytes += txn.nbytes;
		weir_log_reader_advance(b->reader);
	}
}

/* Read the next chunks into the slice; false: there are none. */
static bool
next_slice(Batch *b)
{
	MemoryContext old = MemoryContextSwitchTo(b->slice_cxt);
	Size bytes = 0;
	int n = 0;

	MemoryContextReset(b->slice_cxt);
	b->slice_rows = 0;
	while (n < SLICE_CHUNKS && bytes < SLICE_BYTES &&
		   b->slice_rows < b->slice_max && b->txn < b->ntxns)
	{
		WeirTxn *txn = &b->txns[b->txn];
		Size unpacked;

		if (b->cursor == NULL)
		{
			MemoryContextSwitchTo(b->cxt);
			b->cursor = txn->nrows > 0
							? weir_log_chunks_begin(b->rel, b->snapshot, txn)
							: NULL;
			MemoryContextSwitchTo(b->slice_cxt);
			b->chunk_in_txn = 0;
		}
		if (b->cursor)
			b->images[n] = weir_log_chunks_next(b->cursor, &b->lengths[n]);
		if (b->cursor == NULL || b->images[n] == NULL)
		{
			if (b->cursor)
				weir_log_chunks_end(b->cursor);
			b->cursor = NULL;
			b->watermark = b->by_arrival
							   ? weir_window_arrived(b->watermark, txn->arrival,
													 txn->watermark)
							   : Max(b->watermark, txn->watermark);
			b->txn++;
			continue;
		}
		weir_chunk_reader_open(decoders.readers[n], b->images[n],
							   b->lengths[n]);
		b->chunks[n].reader = decoders.readers[n];
		b->chunks[n].number = txn->number;
		b->chunks[n].watermark = b->watermark;
		b->chunks[n].arrival =
			b->by_arrival ? weir_window_arrival(b->watermark, txn->arrival)
						  : txn->arrival;
		b->watermarks[n] = b->watermark;
		b->arrivals[n] = txn->arrival;
		b->txn_of[n] = b->txn;
		b->number_in_txn[n] = b->chunk_in_txn++;
		unpacked = ((const WeirChunkHeader *) b->images[n])->raw_len;
		if (unpacked > SLICE_BYTES)
			decoders.large = true;
		bytes += Max(b->lengths[n], unpacked);
		b->slice_rows += b->chunks[n].reader->nrows;
		n++;
	}
	b->slice.stream = b->stream;
	b->slice.nchunks = n;
	b->slice.chunks = b->chunks;
	MemoryContextSwitchTo(old);
	return n > 0;
}

/* What the slice holds of the rows a view has given up on. */
static void
set_skips(Batch *b, WeirBatchMember *m)
{
	b->slice.nskip = 0;
	if (m->nskips == 0)
		return;
	b->slice.skip =
		MemoryContextAlloc(b->slice_cxt, m->nskips * sizeof(*b->slice.skip));
	for (int i = 0; i < m->nskips; i++)
	{
		for (int n = 0; n < b->slice.nchunks; n++)
		{
			if (!FullTransactionIdEquals(b->txns[b->txn_of[n]].xid,
										 m->skips[i].xid) ||
				b->number_in_txn[n] != m->skips[i].chunk)
				continue;
			b->slice.skip[b->slice.nskip].chunk = n;
			b->slice.skip[b->slice.nskip++].row = m->skips[i].row;
		}
	}
}

static void
do_step(Batch *b, WeirBatchMember *m, Step step)
{
	WeirFlow *flow = m->flow;
	WeirEventSource source = {.desc = decoders.desc,
							  .at_chunk = &b->slice.at_chunk,
							  .at_row = &b->slice.at_row,
							  .images = b->images,
							  .lengths = b->lengths,
							  .arrivals = b->arrivals};

	switch (step)
	{
		case STEP_BEGIN:
			weir_flow_begin(flow);
			flow->one_by_one = m->careful != WEIR_NO_NUMBER;
			flow->batch_events = b->nrows;
			break;
		case STEP_SLICE:
			set_skips(b, m);
			weir_stream_set_slice(&b->slice);
			weir_flow_slice(flow, &b->slice.at_chunk, b->watermarks, &source);
			weir_stream_set_slice(NULL);
			break;
		case STEP_PUBLISH:
			for (int i = 0; i < m->nskips; i++)
				weir_flow_add_error(flow, m->skips[i].json,
									m->skips[i].sqlstate, m->skips[i].message);
			weir_flow_publish(flow, b->txns[b->ntxns - 1].number, b->watermark);
			weir_batch_forget_skips(m);
			break;
	}
}

/* One step of one view.  Returns the error, palloc'd in the batch's memory. */
static ErrorData *
try_step(Batch *b, WeirBatchMember *m, Step step)
{
	MemoryContext cxt = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;
	ErrorData *volatile error = NULL;

	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(cxt);
	PG_TRY();
	{
		weir_secure_user_code(true);
		do_step(b, m, step);
		weir_secure_user_code(false);
		ReleaseCurrentSubTransaction();
	}
	PG_CATCH();
	{
		weir_secure_user_code(false);
		weir_stream_set_slice(NULL);
		MemoryContextSwitchTo(b->cxt);
		error = CopyErrorData();
		FlushErrorState();
		RollbackAndReleaseCurrentSubTransaction();
	}
	PG_END_TRY();
	MemoryContextSwitchTo(cxt);
	CurrentResourceOwner = owner;
	return error;
}

/*
 * May the view's owner see this column of the stream?  He need not, just
 * because his view has failed: he may hold SELECT on some columns, or on a
 * plain view over the stream.
 */
static bool
column_is_readable(Oid stream, Form_pg_attribute att, Oid owner)
{
	if (att->attisdropped)
		return false;
	return pg_class_aclcheck(stream, owner, ACL_SELECT) == ACLCHECK_OK ||
		   pg_attribute_aclcheck(stream, att->attnum, owner, ACL_SELECT) ==
			   ACLCHECK_OK;
}

/*
 * The event at which a row by row m stopped, as JSON: the columns that the
 * view's owner may read.  NULL: there are none, or they cannot be shown.
 */
static char *
event_json(Batch *b, WeirBatchMember *m)
{
	int n = b->slice.at_chunk;
	int row = b->slice.at_row;
	TupleDesc desc = decoders.desc;
	MemoryContext cxt = CurrentMemoryContext;
	ResourceOwner resowner = CurrentResourceOwner;
	Oid owner = m->flow->plan->owner;
	char *volatile json = NULL;

	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(cxt);
	PG_TRY();
	{
		WeirChunkReader *r = weir_chunk_reader_create(desc, NULL);
		Datum *values = palloc0(desc->natts * sizeof(Datum));
		bool *nulls = palloc0(desc->natts * sizeof(bool));
		TupleDesc row_desc = CreateTupleDescCopy(desc);
		WeirSecure secure;
		bool any = false;
		Datum tuple;

		weir_chunk_reader_open(r, b->images[n], b->lengths[n]);
		for (int i = 0; i < desc->natts; i++)
		{
			Form_pg_attribute att = TupleDescAttr(row_desc, i);

			/* row_to_json leaves out what is dropped */
			att->attisdropped = !column_is_readable(b->stream, att, owner);
			nulls[i] = att->attisdropped || r->values[i] == NULL ||
					   (r->nulls[i] != NULL && r->nulls[i][row]);
			any = any || !att->attisdropped;
			if (!nulls[i])
				values[i] = r->values[i][row];
		}
		weir_secure_enter(&secure, owner, m->flow->options->settings);
		row_desc->tdtypeid = RECORDOID;
		row_desc->tdtypmod = -1;
		assign_record_type_typmod(row_desc);
		tuple = heap_copy_tuple_as_datum(
			heap_form_tuple(row_desc, values, nulls), row_desc);
		if (any)
			json = TextDatumGetCString(DirectFunctionCall1(row_to_json, tuple));
		weir_secure_leave(&secure);
		ReleaseCurrentSubTransaction();
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(cxt);
		FlushErrorState();
		RollbackAndReleaseCurrentSubTransaction();
		json = NULL;
	}
	PG_END_TRY();
	MemoryContextSwitchTo(cxt);
	CurrentResourceOwner = resowner;
	return json;
}

static void
remember_skip(Batch *b, WeirBatchMember *m, const ErrorData *e)
{
	char *json = event_json(b, m);
	int n = b->slice.at_chunk;
	WeirSkippedRow *skip;
	MemoryContext old;

	/* only what is kept: the rest goes with the batch's transaction */
	old = MemoryContextSwitchTo(TopMemoryContext);
	if (m->skips == NULL)
		m->skips = palloc(16 * sizeof(WeirSkippedRow));
	else if (m->nskips >= 16 && (m->nskips & (m->nskips - 1)) == 0)
		m->skips =
			repalloc_huge(m->skips, m->nskips * 2 * sizeof(WeirSkippedRow));
	skip = &m->skips[m->nskips];
	skip->xid = b->txns[b->txn_of[n]].xid;
	skip->chunk = b->number_in_txn[n];
	skip->row = b->slice.at_row;
	skip->json = json ? pstrdup(json) : NULL;
	skip->sqlstate = pstrdup(unpack_sql_state(e->sqlerrcode));
	skip->message = pstrdup(e->message);
	m->nskips++;
	MemoryContextSwitchTo(old);
}

void
weir_batch_forget_skips(WeirBatchMember *m)
{
	for (int i = 0; i < m->nskips; i++)
	{
		if (m->skips[i].json)
			pfree(m->skips[i].json);
		pfree(m->skips[i].sqlstate);
		pfree(m->skips[i].message);
	}
	if (m->skips)
		pfree(m->skips);
	m->skips = NULL;
	m->nskips = 0;
}

/* Has this claim been made so often that it is not believed any more? */
static bool
claimed_too_often(Batch *b, WeirBatchMember *m, Step step, const ErrorData *e)
{
	WeirBatchClaim *c = &m->claim;
	WeirBatchClaim now = {
		.xid = b->txns[0].xid, .chunk = -1, .sqlstate = e->sqlerrcode};

	if (step == STEP_SLICE)
	{
		now.xid = b->txns[b->txn_of[b->slice.at_chunk]].xid;
		now.chunk = b->number_in_txn[b->slice.at_chunk];
		now.row = b->slice.at_row;
	}
	if (!FullTransactionIdEquals(c->xid, now.xid) || c->chunk != now.chunk ||
		c->row != now.row || c->sqlstate != now.sqlstate)
		*c = now;
	if (++c->tries < WEIR_CLAIM_TRIES)
		return false;
	c->tries = 0; /* after a resume it is believed as before */
	return true;
}

/* Is the view to try again for as long as it takes? */
static bool
is_transient(Batch *b, WeirBatchMember *m, Step step, const ErrorData *e)
{
	if (!weir_batch_is_transient(e) || !weir_batch_is_claim(e))
		return weir_batch_is_transient(e);
	/* which event raises it is found out first, as for any other error */
	return !(step == STEP_SLICE && m->careful == WEIR_NO_NUMBER) &&
		   !claimed_too_often(b, m, step, e);
}

/* A step has failed: the view leaves the batch. */
static void
drop_member(Batch *b, WeirBatchMember *m, Step step, ErrorData *e)
{
	WeirFlow *flow = m->flow;
	bool full = flow->too_large && e->sqlerrcode == ERRCODE_OUT_OF_MEMORY;
	bool transient = !full && is_transient(b, m, step, e);
	char *json = NULL;
	bool event = step == STEP_SLICE && !transient && !full;

	b->members = list_delete_ptr(list_copy(b->members), m);
	m->error = e;
	if (transient || (full && b->exhausted && !weir_flow_can_part(flow)))
		m->verdict = WEIR_BATCH_LATER; /* one gives up its memory: enough */
	else if (full && !m->closed &&
			 weir_flow_next_end(flow) <= weir_flow_final_before(flow))
	{
		/* final windows can go to the heap; once, or nothing else is tried */
		m->closed = true;
		m->verdict = WEIR_BATCH_FULL;
	}
	else if (full && weir_state_drop_closed(flow->state))
		m->verdict = WEIR_BATCH_FULL; /* whether snapshots need it or not */
	else if (full && b->txns[0].number != b->txns[b->ntxns - 1].number)
	{
		/* some of it may be final when the rest comes */
		m->max_rows = Max(b->nrows / 4, 1);
		m->verdict = WEIR_BATCH_AGAIN;
	}
	else if (full && weir_flow_can_part(flow))
	{
		/* half of the memory at a kilobyte a row: seldom too much */
		m->part_rows =
			Max(Min(weir_state_memory_limit(flow->v) / 2, BATCH_ROWS),
				LEAST_PART_ROWS);
		m->verdict = WEIR_BATCH_IN_PARTS;
	}
	else if (event && m->careful == WEIR_NO_NUMBER)
	{
		/* which event is it? */
		m->careful = b->txns[b->ntxns - 1].number;
		m->verdict = WEIR_BATCH_AGAIN;
	}
	else if (event && flow->options->on_error == WEIR_ON_ERROR_SKIP)
	{
		remember_skip(b, m, e);
		m->verdict = WEIR_BATCH_AGAIN;
	}
	else
	{
		m->verdict = WEIR_BATCH_FAILED;
		b->exhausted = b->exhausted || full;
		if (event)
			json = event_json(b, m);
	}
	weir_flow_discard(flow);
	if (event && m->verdict == WEIR_BATCH_FAILED)
		weir_flow_add_error(flow, json, unpack_sql_state(e->sqlerrcode),
							e->message);
}

/* One step of all views still in the batch. */
static void
step_members(Batch *b, Step step)
{
	ListCell *lc;
	List *todo = b->members;

	foreach(lc, todo)
	{
		WeirBatchMember *m = lfirst(lc);
		ErrorData *e = try_step(b, m, step);

		if (e != NULL)
			drop_member(b, m, step, e);
	}
}

/* The batch is through for this view. */
static void
note_visible(Batch *b, WeirBatchMember *m, TimestampTz now, int64 busy_us)
{
	WeirViewShared *v = m->flow->v;

	for (int i = 0; i < b->ntxns; i++)
	{
		int64 us = now - b->published[i];

		if (b->published[i] == 0)
			continue;
		us = us < 2 ? 0 : pg_leftmost_one_pos64(us);
		pg_atomic_fetch_add_u32(
			&v->visible_hist[Min(us, lengthof(v->visible_hist) - 1)], 1);
	}
	pg_atomic_write_u64(&v->batch_us, busy_us);
	pg_atomic_write_u64(&v->build_done,
						pg_atomic_read_u64(&v->build_done) + b->nbytes);
	weir_batch_forget_skips(m);
	m->claim.tries = 0;
	if (m->careful != WEIR_NO_NUMBER && m->flow->position >= m->careful)
		m->careful = WEIR_NO_NUMBER;
	m->part_rows = 0;
	m->closed = false;
	if (m->max_rows > 0)
		m->max_rows += m->max_rows / 8 + 1;
	if (m->max_rows >= BATCH_ROWS)
		m->max_rows = 0;
}

/* Fold and publish the transactions taken. */
static void
fold(Batch *b)
{
	TimestampTz start = weir_now();
	TimestampTz now;
	ListCell *lc;

	if (weir_log_reader_snapshot(b->reader) != NULL)
		PushActiveSnapshot(weir_log_reader_snapshot(b->reader));
	else
		PushActiveSnapshot(GetLatestSnapshot());
	b->snapshot = GetActiveSnapshot();
	step_members(b, STEP_BEGIN);
	prepare_decoders(b);
	while (b->members != NIL && next_slice(b))
	{
		CHECK_FOR_INTERRUPTS();
		step_members(b, STEP_SLICE);
	}
	if (b->members != NIL)
	{
		weir_debug_point("batch-folded");
		step_members(b, STEP_PUBLISH);
	}
	PopActiveSnapshot();
	if (decoders.large)
		forget_decoders();
	now = weir_now();
	foreach(lc, b->members)
		note_visible(b, lfirst(lc), now, now - start);
}

/* In the current context. */
static Batch *
make_batch(Oid stream, WeirLogReader *reader, TimestampTz watermark,
		   List *members)
{
	Batch *b = palloc0(sizeof(Batch));
	ListCell *lc;

	b->stream = stream;
	b->reader = reader;
	b->cxt = CurrentMemoryContext;
	b->slice_cxt =
		AllocSetContextCreate(b->cxt, "weir slice", ALLOCSET_DEFAULT_SIZES);
	b->slice_max = PG_UINT64_MAX;
	b->watermark = watermark;
	b->members = list_copy(members);
	foreach(lc, members)
		((WeirBatchMember *) lfirst(lc))->verdict = WEIR_BATCH_OK;
	return b;
}

static void
tell_result(const Batch *b, WeirBatchResult *result)
{
	result->position = b->txns[b->ntxns - 1].number;
	result->watermark = b->watermark;
	result->nrows = b->nrows;
	result->nbytes = b->nbytes;
	result->at_head = b->published[b->ntxns - 1] != 0;
}

bool
weir_batch_run(Relation rel, WeirLogReader *reader, WeirNumber limit,
			   TimestampTz watermark, bool by_arrival, List *members,
			   WeirBatchResult *result)
{
	Batch *b = make_batch(RelationGetRelid(rel), reader, watermark, members);

	b->rel = rel;
	b->by_arrival = by_arrival;
	take_transactions(b, limit);
	if (b->ntxns == 0)
		return false;
	fold(b);
	tell_result(b, result);
	return true;
}


/* ---------- in parts ---------- */

/*
 * For each chunk to come, and the end: the smallest event time in it and those
 * after it.
 */
static TimestampTz *
times_to_come(Batch *b, int *nchunks)
{
	TimestampTz *times = palloc(64 * sizeof(TimestampTz));
	int size = 64;
	int n = 0;

	for (int i = 0; i < b->ntxns; i++)
	{
		WeirChunkCursor *cursor;
		char *image;
		Size len;

		if (b->txns[i].nrows == 0)
			continue;
		cursor = weir_log_chunks_begin(b->rel, b->snapshot, &b->txns[i]);
		while ((image = weir_log_chunks_next(cursor, &len)) != NULL)
		{
			WeirChunkHeader header;
			TimestampTz max_time;
			WeirRecord record;

			CHECK_FOR_INTERRUPTS();
			if (n + 1 == size)
			{
				size *= 2;
				times = repalloc_huge(times, size * sizeof(TimestampTz));
			}
			(void) weir_chunk_peek(image, len, &times[n], &max_time, &record);
			memcpy(&header, image, sizeof(header));
			if (header.nrows == 0)
				times[n] = DT_NOEND;
			n++;
			pfree(image);
		}
		weir_log_chunks_end(cursor);
	}
	times[n] = DT_NOEND;
	for (int i = n - 1; i >= 0; i--)
		times[i] = Min(times[i], times[i + 1]);
	*nchunks = n;
	return times;
}

/* Rows of one part, as it is done in a batch; false: there are no more. */
static bool
fold_part(Batch *b, WeirBatchMember *m, int *nchunks)
{
	uint64 rows = 0;
	bool more = true;

	b->step = STEP_BEGIN;
	do_step(b, m, STEP_BEGIN);
	prepare_decoders(b);
	while (rows < b->part_rows && (more = next_slice(b)))
	{
		CHECK_FOR_INTERRUPTS();
		/* what reading raises is no event's fault */
		b->step = STEP_SLICE;
		do_step(b, m, STEP_SLICE);
		b->step = STEP_BEGIN;
		rows += b->slice_rows;
		*nchunks += b->slice.nchunks;
	}
	b->step = STEP_PUBLISH;
	m->flow->batch_events = rows;
	return more;
}

/* For weir_flow_consume_in_parts. */
static void
fold_in_parts(void *arg)
{
	Batch *b = arg;
	WeirBatchMember *m = linitial(b->members);
	MemoryContext part_cxt = AllocSetContextCreate(
		CurrentMemoryContext, "weir part", ALLOCSET_DEFAULT_SIZES);
	MemoryContext old;
	TimestampTz *times;
	int nchunks;
	int done = 0;
	bool more = true;

	b->rel = weir_batch_open_stream(b->stream);
	b->snapshot = GetActiveSnapshot();
	times = times_to_come(b, &nchunks);
	for (int i = 0; i < m->nskips; i++)
		weir_flow_add_error(m->flow, m->skips[i].json, m->skips[i].sqlstate,
							m->skips[i].message);
	old = MemoryContextSwitchTo(part_cxt);
	while (more)
	{
		more = fold_part(b, m, &done);
		Ensure(done <= nchunks, "chunks of a transaction have come to be");
		weir_flow_part(m->flow, times[done]);
		weir_debug_point("part-through");
		MemoryContextSwitchTo(part_cxt);
		MemoryContextReset(part_cxt);
	}
	if (decoders.large)
		forget_decoders();
	MemoryContextSwitchTo(old);
	Ensure(done == nchunks, "chunks of a transaction have vanished");
	relation_close(b->rel, NoLock);
}

/*
 * The transaction is aborted, and with it the flow's state; what is to be done?
 */
static void
judge_parts(Batch *b, WeirBatchMember *m, ErrorData *e)
{
	bool full = m->flow->too_large && e->sqlerrcode == ERRCODE_OUT_OF_MEMORY;
	bool transient = !full && is_transient(b, m, b->step, e);
	bool event = b->step == STEP_SLICE && !full && !transient;

	m->error = e;
	if (transient)
		m->verdict = WEIR_BATCH_LATER;
	else if (full && b->part_rows > LEAST_PART_ROWS)
	{
		m->part_rows = b->part_rows / 4;
		m->verdict = WEIR_BATCH_IN_PARTS;
	}
	else if (event && m->careful == WEIR_NO_NUMBER)
	{
		m->careful = b->txns[b->ntxns - 1].number;
		m->verdict = WEIR_BATCH_IN_PARTS;
	}
	else if (event)
	{
		SetCurrentStatementStartTimestamp();
		StartTransactionCommand();
		PushActiveSnapshot(GetTransactionSnapshot());
		remember_skip(b, m, e);
		PopActiveSnapshot();
		CommitTransactionCommand();
		MemoryContextSwitchTo(b->cxt);
		m->verdict = m->flow->options->on_error == WEIR_ON_ERROR_SKIP
						 ? WEIR_BATCH_IN_PARTS
						 : WEIR_BATCH_FAILED;
	}
	else
		m->verdict = WEIR_BATCH_FAILED;
}

/* The transactions of the next number, and W after them. */
static TimestampTz
take_for_parts(Batch *b)
{
	TimestampTz watermark = b->watermark;

	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	b->rel = weir_batch_open_stream(b->stream);
	(void) weir_log_reader_poll(b->reader, b->rel);
	MemoryContextSwitchTo(b->cxt);
	take_transactions(b, PG_UINT64_MAX);
	relation_close(b->rel, NoLock);
	CommitTransactionCommand();
	MemoryContextSwitchTo(b->cxt);
	for (int i = 0; i < b->ntxns; i++)
		watermark = Max(watermark, b->txns[i].watermark);
	return watermark;
}

/* Raises nothing that the transactions may be at fault for. */
static void
consume_in_parts(Batch *b, WeirBatchMember *m, TimestampTz watermark,
				 MemoryContext caller)
{
	ErrorData *volatile error = NULL;

	PG_TRY();
	{
		weir_secure_user_code(true);
		if (!weir_flow_consume_in_parts(m->flow, fold_in_parts, b,
										b->txns[b->ntxns - 1].number,
										watermark))
			m->verdict = WEIR_BATCH_LOST;
		weir_secure_user_code(false);
	}
	PG_CATCH();
	{
		weir_secure_user_code(false);
		weir_stream_set_slice(NULL);
		MemoryContextSwitchTo(caller);
		error = CopyErrorData();
		FlushErrorState();
		AbortCurrentTransaction();
	}
	PG_END_TRY();
	MemoryContextSwitchTo(b->cxt);
	if (error != NULL)
		judge_parts(b, m, error);
}

bool
weir_batch_run_in_parts(Oid stream, WeirLogReader *reader,
						TimestampTz watermark, WeirBatchMember *m,
						WeirBatchResult *result)
{
	static MemoryContext cxt = NULL;
	MemoryContext caller = CurrentMemoryContext;
	TimestampTz start = weir_now();
	TimestampTz now;
	Batch *b;
	bool any;

	if (cxt == NULL)
		cxt = AllocSetContextCreate(TopMemoryContext, "weir parts",
									ALLOCSET_DEFAULT_SIZES);
	MemoryContextReset(cxt);
	MemoryContextSwitchTo(cxt);
	b = make_batch(stream, reader, watermark, list_make1(m));
	b->one_number = true;
	b->part_rows = b->slice_max = m->part_rows;
	watermark = take_for_parts(b);
	any = b->ntxns > 0;
	if (any)
	{
		consume_in_parts(b, m, watermark, caller);
		tell_result(b, result);
		now = weir_now();
		if (m->verdict == WEIR_BATCH_OK)
			note_visible(b, m, now, now - start);
	}
	MemoryContextSwitchTo(caller);
	MemoryContextReset(cxt);
	return any;
}
