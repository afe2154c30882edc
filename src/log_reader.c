/*-------------------------------------------------------------------------
 *
 * log_reader.c
 *	  The committed transactions of a stream, for who consumes them: which are
 *	  next, and the chunks of each.
 *
 * A reader keeps, in a heap by number, transactions that it has not yielded.  It
 * learns of them from the ring (order.c).  Where the ring does not say all (at
 * its start, when the ring has gone on without it, when the stream has another
 * file, when it has left out the upper half of what did not fit), it scans the
 * headers of the log.  Below the horizon it then has everything.
 *
 * Relies on weir_order_horizon and on weir_log_collect.  Guarantees that
 * transactions come strictly by number, each once, and that places (which are
 * hints) never decide what is read: a chunk count that differs leads to a scan.
 *
 * States of a reader: it needs a scan -> (poll) it follows the ring -> it needs a
 * scan.  One with a snapshot only ever scans.  What it cannot keep it does not read,
 * as far as summaries of the log (runs.h) say where that is.
 *
 * Locks: order_lock, shared, for RING_BATCH entries of the ring at a time.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "miscadmin.h"
#include "storage/bufmgr.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

#include "compat.h"
#include "debug.h"
#include "log.h"
#include "log_private.h"
#include "log_reader.h"
#include "order.h"
#include "runs.h"
#include "shmem.h"

/* Entries copied out of the ring under one hold of order_lock. */
#define RING_BATCH 64

/* A reader keeps at most so many transactions; the others are read again. */
#ifdef WEIR_DEBUG
#define MAX_PENDING 1000
#else
#define MAX_PENDING 200000
#endif

/* ---------------------------------------------------- chunks of a transaction */

typedef struct ChunkPlace
{
	uint32 chunk_no;
	ItemPointerData tid;
} ChunkPlace;

struct WeirChunkCursor
{
	Relation rel;
	Snapshot snapshot;
	ChunkPlace *chunks;
	int nchunks;
	int space;
	int next;
};

static void
remember_chunk(WeirChunkCursor *c, uint32 chunk_no, ItemPointer tid)
{
	if (c->nchunks == c->space)
	{
		c->space = c->space ? c->space * 2 : 16;
		c->chunks =
			c->chunks ? repalloc_huge(c->chunks, c->space * sizeof(ChunkPlace))
					  : palloc(c->space * sizeof(ChunkPlace));
	}
	c->chunks[c->nchunks].chunk_no = chunk_no;
	c->chunks[c->nchunks].tid = *tid;
	c->nchunks++;
}

static void
find_in_block(WeirChunkCursor *c, BlockNumber block, FullTransactionId xid,
			  OffsetNumber only)
{
	WeirBlockChunk chunks[MaxHeapTuplesPerPage];
	Buffer buffer;
	int n;

	CHECK_FOR_INTERRUPTS();
	buffer = ReadBuffer(c->rel, block);
	n = weir_log_block_chunks(c->rel, c->snapshot, buffer, only, chunks);
	for (int i = 0; i < n; i++)
	{
		ItemPointerData tid;

		if (!FullTransactionIdEquals(chunks[i].header.xid, xid) ||
			chunks[i].adopts)
			continue;
		ItemPointerSet(&tid, block, chunks[i].offset);
		remember_chunk(c, chunks[i].header.chunk_no, &tid);
	}
	ReleaseBuffer(buffer);
}

static void
find_in_file(WeirChunkCursor *c, FullTransactionId xid)
{
	WeirLogScan *scan =
		weir_log_scan_begin(c->rel, c->snapshot, 0, InvalidBlockNumber);
	WeirLogHeader h;

	while (weir_log_scan_next_header(scan, &h))
	{
		CHECK_FOR_INTERRUPTS();
		if (FullTransactionIdEquals(h.chunk.xid, xid) &&
			!(h.has_record && h.record.kind == WEIR_RECORD_ADOPT))
			remember_chunk(c, h.chunk.chunk_no, &h.tid);
	}
	weir_log_scan_end(scan);
}

static int
compare_chunks(const void *a, const void *b)
{
	uint32 x = ((const ChunkPlace *) a)->chunk_no;
	uint32 y = ((const ChunkPlace *) b)->chunk_no;

	return (x > y) - (x < y);
}

/* All of them, each alone on its page as far as is known: no need to go through
 * the small ones of others beside it. */
static bool
all_are_single(const WeirTxn *txn)
{
	if (txn->nplaces != (int) txn->nchunks)
		return false;
	for (int i = 0; i < txn->nplaces; i++)
		if (txn->places[i].offset == InvalidOffsetNumber)
			return false;
	return true;
}

static void
find_in_places(WeirChunkCursor *c, const WeirTxn *txn, bool single)
{
	BlockNumber nblocks = RelationGetNumberOfBlocks(c->rel);

	c->nchunks = 0;
	for (int i = 0; i < txn->nplaces; i++)
	{
		const WeirPlace *p = &txn->places[i];

		for (BlockNumber b = p->first; b <= p->last && b < nblocks; b++)
		{
			bool seen = false;

			/* joined ranges may overlap */
			for (int j = 0; j < i && !single; j++)
				if (b >= txn->places[j].first && b <= txn->places[j].last)
					seen = true;
			if (!seen)
				find_in_block(c, b, txn->xid,
							  single ? p->offset : InvalidOffsetNumber);
		}
	}
}

/* Fills the cursor; false: the log does not hold what txn says. */
static bool
find_chunks(WeirChunkCursor *c, const WeirTxn *txn)
{
	bool single = all_are_single(txn);

	find_in_places(c, txn, single);
	if (c->nchunks != txn->nchunks && single)
		find_in_places(c, txn, false);
	if (c->nchunks != txn->nchunks)
	{
		c->nchunks = 0;
		find_in_file(c, txn->xid);
	}
	qsort(c->chunks, c->nchunks, sizeof(ChunkPlace), compare_chunks);
	return c->nchunks == txn->nchunks;
}

WeirChunkCursor *
weir_log_chunks_begin(Relation rel, Snapshot snapshot, const WeirTxn *txn)
{
	WeirChunkCursor *c = palloc0(sizeof(WeirChunkCursor));

	c->rel = rel;
	c->snapshot = snapshot;
	if (!find_chunks(c, txn))
		ereport(ERROR, (errcode(ERRCODE_DATA_CORRUPTED),
						errmsg("log of stream \"%s\" is damaged",
							   RelationGetRelationName(rel)),
						errdetail("Transaction " UINT64_FORMAT
								  " has %d chunks, its record says %u.",
								  U64FromFullTransactionId(txn->xid),
								  c->nchunks, txn->nchunks)));
	return c;
}

char *
weir_log_chunks_next(WeirChunkCursor *c, Size *len)
{
	char *image;

	if (c->next >= c->nchunks)
		return NULL;
	CHECK_FOR_INTERRUPTS();
	Ensure(weir_log_fetch(c->rel, c->snapshot, &c->chunks[c->next].tid, &image,
						  len),
		   "a chunk that was visible is gone");
	c->next++;
	return image;
}

void
weir_log_chunks_end(WeirChunkCursor *c)
{
	if (c->chunks)
		pfree(c->chunks);
	pfree(c);
}

bool
weir_log_txn_visible(Relation rel, Snapshot snapshot, const WeirTxn *txn)
{
	WeirChunkCursor c;
	bool found;

	memset(&c, 0, sizeof(c));
	c.rel = rel;
	c.snapshot = snapshot;
	found = find_chunks(&c, txn);
	if (c.chunks)
		pfree(c.chunks);
	return found;
}

/* --------------------------------------------------------------- reader */

typedef struct PendingTxn
{
	WeirTxn txn;
	TimestampTz published_at;
} PendingTxn;

struct WeirLogReader
{
	Oid stream;
	MemoryContext cxt;
	Snapshot snapshot;		/* NULL: follows the log */
	WeirNumber done_before; /* everything below has been yielded */
	WeirNumber horizon;
	WeirNumber limit;		/* transactions from here on were not all kept:
								 * scan before yielding them */
	WeirNumber scanned_max; /* highest number of the last scan: the ring may
								 * bring it again */
	uint64 cursor;			/* next ring entry to look at */
	bool need_scan;
	RelFileNumber filenumber; /* of the last poll */
	PendingTxn *pending;	  /* binary heap by number, xid */
	int npending;
	int space;
};

WeirLogReader *
weir_log_reader_create(Oid stream, WeirPosition after, MemoryContext cxt)
{
	WeirLogReader *r = MemoryContextAllocZero(cxt, sizeof(WeirLogReader));

	r->stream = stream;
	r->cxt = cxt;
	r->done_before = after + 1;
	r->horizon = r->done_before;
	r->limit = PG_UINT64_MAX;
	r->need_scan = true;
	return r;
}

WeirLogReader *
weir_log_reader_create_at(Oid stream, WeirPosition after, Snapshot snapshot,
						  MemoryContext cxt)
{
	WeirLogReader *r = weir_log_reader_create(stream, after, cxt);

	r->snapshot = snapshot;
	return r;
}

Snapshot
weir_log_reader_snapshot(const WeirLogReader *r)
{
	return r->snapshot;
}

void
weir_log_reader_free(WeirLogReader *reader)
{
	if (reader->pending)
		pfree(reader->pending);
	pfree(reader);
}

static int
compare_pending(const void *a, const void *b)
{
	const WeirTxn *x = &((const PendingTxn *) a)->txn;
	const WeirTxn *y = &((const PendingTxn *) b)->txn;
	uint64 xx = U64FromFullTransactionId(x->xid);
	uint64 yx = U64FromFullTransactionId(y->xid);

	if (x->number != y->number)
		return x->number < y->number ? -1 : 1;
	return (xx > yx) - (xx < yx);
}

static void
sift_up(WeirLogReader *r, int i)
{
	PendingTxn moving = r->pending[i];

	while (i > 0)
	{
		int parent = (i - 1) / 2;

		if (compare_pending(&r->pending[parent], &moving) <= 0)
			break;
		r->pending[i] = r->pending[parent];
		i = parent;
	}
	r->pending[i] = moving;
}

static void
sift_down(WeirLogReader *r, int i)
{
	PendingTxn moving = r->pending[i];

	for (;;)
	{
		int child = 2 * i + 1;

		if (child >= r->npending)
			break;
		if (child + 1 < r->npending &&
			compare_pending(&r->pending[child + 1], &r->pending[child]) < 0)
			child++;
		if (compare_pending(&moving, &r->pending[child]) <= 0)
			break;
		r->pending[i] = r->pending[child];
		i = child;
	}
	r->pending[i] = moving;
}

static void
add_pending(WeirLogReader *r, const WeirTxn *txn, TimestampTz published_at)
{
	if (txn->number < r->done_before || txn->number >= r->limit)
		return;
	if (r->npending == MAX_PENDING)
	{
		/* keep the lower half; a sorted array is a heap */
		qsort(r->pending, r->npending, sizeof(PendingTxn), compare_pending);
		r->npending = MAX_PENDING / 2;
		r->limit = r->pending[r->npending].txn.number;
		/* never half of those that share a number */
		while (r->npending > 0 &&
			   r->pending[r->npending - 1].txn.number >= r->limit)
			r->npending--;
		if (txn->number >= r->limit)
			return;
	}
	if (r->npending == r->space)
	{
		int space = r->space ? r->space * 2 : 64;

		if (r->pending == NULL)
			r->pending = MemoryContextAlloc(r->cxt, space * sizeof(PendingTxn));
		else
			r->pending = repalloc_huge(r->pending, space * sizeof(PendingTxn));
		r->space = space;
	}
	r->pending[r->npending].txn = *txn;
	r->pending[r->npending].published_at = published_at;
	r->npending++;
	sift_up(r, r->npending - 1);
}

static void
reader_collect(void *arg, const WeirTxn *txn)
{
	WeirLogReader *r = arg;

	r->scanned_max = Max(r->scanned_max, txn->number);
	add_pending(r, txn, 0);
}

/* Of one with a snapshot. */
static void
reader_collect_all(void *arg, const WeirTxn *txn)
{
	WeirTxn last = *txn;

	if (txn->number == WEIR_NO_NUMBER)
	{
		last.number = WEIR_UNNUMBERED;
		last.arrival = weir_now();
	}
	add_pending(arg, &last, 0);
}

/* The ring may bring what a scan has found already. */
static bool
already_pending(WeirLogReader *r, const WeirTxn *txn)
{
	if (txn->number > r->scanned_max)
		return false;
	for (int i = 0; i < r->npending; i++)
		if (r->pending[i].txn.number == txn->number &&
			FullTransactionIdEquals(r->pending[i].txn.xid, txn->xid))
			return true;
	return false;
}

/*
 * Take what the ring holds between our cursor and head, which was read together
 * with the horizon.
 */
static void
read_ring(WeirLogReader *r, uint64 head)
{
	WeirRingEntry batch[RING_BATCH];

	while (r->cursor < head && !r->need_scan)
	{
		int n = 0;
		bool scan;

		LWLockAcquire(&weir_shared->order_lock, LW_SHARED);
		if (weir_shared->ring_head - r->cursor > WEIR_RING_SIZE)
			r->need_scan = true;
		while (r->cursor < head && n < RING_BATCH && !r->need_scan)
		{
			const WeirRingEntry *e =
				&weir_shared->ring[r->cursor % WEIR_RING_SIZE];

			if (e->stream == r->stream && e->db == MyDatabaseId)
				batch[n++] = *e;
			r->cursor++;
		}
		LWLockRelease(&weir_shared->order_lock);

		/* the cursor is beyond them: if one cannot be added a scan has to say */
		scan = r->need_scan;
		r->need_scan = true;
		for (int i = 0; i < n; i++)
		{
			/* written into a file we do not know: what it holds, a scan says */
			if (batch[i].filenumber != r->filenumber)
				scan = true;
			else if (!already_pending(r, &batch[i].txn))
				add_pending(r, &batch[i].txn, batch[i].published_at);
		}
		r->need_scan = scan;
	}
}

/*
 * Skip runs that the reader is beyond; and, of the others by their first number,
 * those after as many as he can keep: so each run is read about once, however many
 * times he comes.  A chunk is a transaction, or part of one.  A run without record
 * is of transactions with records elsewhere.
 *
 * There is something below the limit, or it would be for nothing: the transaction
 * with the first number.  A given snapshot may not show that one.
 */
static void
choose_runs(WeirLogReader *r, WeirRuns *runs)
{
	WeirRun **next =
		palloc_extended(Max(runs->n, 1) * sizeof(WeirRun *), MCXT_ALLOC_HUGE);
	uint64 nchunks = 0;
	int n = 0;

	for (int i = 0; i < runs->n; i++)
	{
		WeirRun *run = &runs->runs[i];

		run->skip = run->max_number < r->done_before;
		if (!run->skip && r->snapshot == NULL &&
			run->min_number > r->done_before && run->min_number != PG_INT64_MAX)
			next[n++] = run;
	}
	qsort(next, n, sizeof(WeirRun *), weir_runs_compare_numbers);
	for (int i = 0; i < n; i++)
	{
		nchunks += next[i]->nchunks;
		if (nchunks <= MAX_PENDING ||
			next[i]->min_number == next[0]->min_number)
			continue;
		r->limit = Min(r->limit, next[i]->min_number);
		next[i]->skip = true;
	}
	pfree(next);
}

/* The log, but for runs that nothing is wanted of now; r->limit is set. */
static void
read_log(WeirLogReader *r, Relation rel, Snapshot snapshot,
		 WeirLogCollectCallback callback)
{
	WeirRuns *runs = weir_runs_load(rel);
	WeirLogCollect collect = {.rel = rel,
							  .snapshot = snapshot,
							  .from = r->snapshot != NULL ? WEIR_NO_NUMBER
														  : r->done_before,
							  .strict = true,
							  .runs = runs,
							  .callback = callback,
							  .arg = r};

	choose_runs(r, runs);
	weir_log_collect(&collect);
	weir_runs_free(runs);
}

WeirNumber
weir_log_reader_poll(WeirLogReader *r, Relation rel)
{
	uint64 head;

	if (r->snapshot != NULL)
	{
		if (r->need_scan || (r->npending == 0 && r->limit != PG_UINT64_MAX))
		{
			r->npending = 0;
			r->limit = PG_UINT64_MAX;
			read_log(r, rel, r->snapshot, reader_collect_all);
			r->need_scan = false;
		}
		r->horizon = PG_UINT64_MAX;
		return r->limit;
	}
	if (r->filenumber != weir_rel_number(rel))
	{
		r->filenumber = weir_rel_number(rel);
		r->need_scan = true;
	}
	r->horizon = weir_order_horizon(&head);
	if (!r->need_scan)
		read_ring(r, head);
	if (!r->need_scan && r->horizon > r->limit &&
		(r->npending == 0 || r->pending[0].txn.number >= r->limit))
		r->need_scan = true;
	if (r->need_scan)
	{
		Snapshot snapshot;

		weir_debug_point("reader-scan");

		/*
		 * The horizon again: what was below it is visible to a snapshot taken
		 * now.  Whatever else the snapshot shows is complete too, and may come
		 * once more through the ring (already_pending).
		 */
		r->npending = 0;
		r->limit = PG_UINT64_MAX;
		r->scanned_max = 0;
		r->horizon = weir_order_horizon(&head);
		snapshot = RegisterSnapshot(GetLatestSnapshot());
		read_log(r, rel, snapshot, reader_collect);
		UnregisterSnapshot(snapshot);
		r->cursor = head;
		r->need_scan = false;
	}
	return Min(r->horizon, r->limit);
}

bool
weir_log_reader_pending(WeirLogReader *r)
{
	uint64 head;

	if (r->need_scan)
		return true;
	r->horizon = weir_order_horizon(&head);
	read_ring(r, head);
	if (r->need_scan || r->horizon > r->limit)
		return true;
	return r->npending > 0 && r->pending[0].txn.number < r->horizon;
}

bool
weir_log_reader_waits(WeirLogReader *r)
{
	return !r->need_scan && r->npending > 0 &&
		   r->pending[0].txn.number >= r->horizon;
}

bool
weir_log_reader_peek(WeirLogReader *r, WeirTxn *txn, TimestampTz *published_at)
{
	if (r->need_scan || r->npending == 0 ||
		r->pending[0].txn.number >= Min(r->horizon, r->limit))
		return false;
	*txn = r->pending[0].txn;
	if (published_at)
		*published_at = r->pending[0].published_at;
	return true;
}

bool
weir_log_reader_is_through(WeirLogReader *r)
{
	return !r->need_scan && r->horizon <= r->limit &&
		   (r->npending == 0 || r->pending[0].txn.number >= r->horizon);
}

void
weir_log_reader_advance(WeirLogReader *r)
{
	WeirNumber number;

	Assert(r->npending > 0);
	number = r->pending[0].txn.number;
	r->npending--;
	if (r->npending > 0)
	{
		r->pending[0] = r->pending[r->npending];
		sift_down(r, 0);
	}
	if (r->npending == 0 || r->pending[0].txn.number != number)
		r->done_before = number + 1;
}

WeirNumber
weir_log_reader_done_before(WeirLogReader *r)
{
	WeirNumber reached = Min(r->horizon, r->limit);

	if (!r->need_scan)
	{
		if (r->npending > 0)
			reached = Min(reached, r->pending[0].txn.number);
		r->done_before = Max(r->done_before, reached);
	}
	return r->done_before;
}
