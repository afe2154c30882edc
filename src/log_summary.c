/*-------------------------------------------------------------------------
 *
 * log_summary.c
 *	  Making summaries of runs of a stream's log; runs.c keeps them, and says
 *	  what makes one right.
 *
 * A run is looked at, read with a snapshot taken after that, and looked at again:
 * if it is what it was, its summary is kept.
 *
 * Locks: the caller holds ShareUpdateExclusiveLock on the stream, as runs.c asks.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "miscadmin.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

#include "debug.h"
#include "log.h"
#include "log_private.h"
#include "log_summary.h"
#include "order.h"
#include "runs.h"

/* What a run has of a transaction. */
typedef struct RunTxn
{
	FullTransactionId xid; /* hash key */
	uint32 nchunks;
	uint32 all; /* what its record says, if it is here, else 0 */
} RunTxn;

static void
add_to_run(WeirRun *run, HTAB *txns, const WeirLogHeader *h)
{
	const WeirRecord *record = &h->record;
	RunTxn *t;
	bool found;

	t = hash_search(txns, &h->chunk.xid, HASH_ENTER, &found);
	if (!found)
	{
		t->nchunks = 0;
		t->all = 0;
	}
	if (h->chunk.flags & WEIR_CHUNK_PIECE)
		return;
	t->nchunks++;
	run->nbytes += h->len;
	if (h->chunk.nrows > 0)
	{
		bool timed = (h->chunk.flags & WEIR_CHUNK_HAS_TIME) != 0;

		run->nchunks++;
		run->nrows += h->chunk.nrows;
		run->min_time = timed ? Min(run->min_time, h->min_time) : PG_INT64_MIN;
		run->max_time = timed ? Max(run->max_time, h->max_time) : PG_INT64_MAX;
	}
	if (!h->has_record)
		return;
	if (record->number == WEIR_NO_NUMBER || record->kind == WEIR_RECORD_ADOPT)
		run->opaque = true;
	t->all = record->nchunks;
	run->min_number = Min(run->min_number, record->number);
	run->max_number = Max(run->max_number, record->number);
	run->min_arrival = Min(run->min_arrival, record->arrival);
	run->max_arrival = Max(run->max_arrival, record->arrival);
	if (record->watermark > run->watermark ||
		(record->watermark == run->watermark &&
		 record->number < run->watermark_number))
	{
		run->watermark = record->watermark;
		run->watermark_number = record->number;
		run->watermark_arrival = record->arrival;
		run->watermark_kind = record->kind;
	}
}

static int
compare_xids(const void *a, const void *b)
{
	uint64 x = U64FromFullTransactionId(*(const FullTransactionId *) a);
	uint64 y = U64FromFullTransactionId(*(const FullTransactionId *) b);

	return (x > y) - (x < y);
}

static void
note_open(WeirRun *run, HTAB *txns)
{
	HASH_SEQ_STATUS seq;
	RunTxn *t;

	run->open = palloc(WEIR_RUN_MAX_OPEN * sizeof(FullTransactionId));
	run->nopen = 0;
	hash_seq_init(&seq, txns);
	while ((t = hash_seq_search(&seq)) != NULL)
	{
		if (t->all != 0 && t->nchunks == t->all)
			continue;
		if (run->nopen == WEIR_RUN_MAX_OPEN)
		{
			run->opaque = true;
			run->nopen = 0;
			hash_seq_term(&seq);
			break;
		}
		run->open[run->nopen++] = t->xid;
	}
	qsort(run->open, run->nopen, sizeof(FullTransactionId), compare_xids);
}

/* What is in the run, whoever asks: everybody sees all of it. */
static void
summarize_run(Relation rel, Snapshot snapshot, WeirRun *run)
{
	HTAB *txns =
		weir_log_xid_hash("weir run", sizeof(RunTxn), CurrentMemoryContext);
	WeirLogScan *scan =
		weir_log_scan_begin(rel, snapshot, run->first, run->blocks);
	WeirLogHeader h;

	run->min_number = PG_INT64_MAX;
	run->max_number = WEIR_NO_NUMBER;
	run->min_arrival = DT_NOEND;
	run->max_arrival = DT_NOBEGIN;
	run->min_time = PG_INT64_MAX;
	run->max_time = PG_INT64_MIN;
	run->watermark = WEIR_NO_TIME;
	run->watermark_number = PG_INT64_MAX;
	weir_log_scan_with_pieces(scan);
	while (weir_log_scan_next_header(scan, &h))
	{
		CHECK_FOR_INTERRUPTS();
		add_to_run(run, txns, &h);
	}
	weir_log_scan_end(scan);
	note_open(run, txns);
	hash_destroy(txns);

	/* those whose records are elsewhere have committed, too, and got their
	 * numbers before; but for those whose records make a run opaque */
	if (run->nopen > 0 || run->opaque || run->max_number == WEIR_NO_NUMBER)
		run->max_number = weir_order_highest();
}

int
weir_log_summarize(Relation rel, int max_ms, bool *more)
{
	MemoryContext cxt = AllocSetContextCreate(
		CurrentMemoryContext, "weir log summarize", ALLOCSET_DEFAULT_SIZES);
	MemoryContext old = MemoryContextSwitchTo(cxt);
	TimestampTz until = TimestampTzPlusMilliseconds(weir_now(), max_ms);
	List *wanted = weir_runs_wanted(rel);
	int64 changing = -1; /* a page of the map that somebody writes to */
	int ntried = 0;
	int n = 0;
	ListCell *lc;

	*more = false;
	foreach(lc, wanted)
	{
		WeirRun *run = lfirst(lc);
		Snapshot snapshot;

		if (weir_runs_map_page(run) == changing || !weir_runs_look(rel, run))
			continue;
		if (max_ms > 0 && ntried > 0 && weir_now() >= until)
		{
			*more = true;
			break;
		}
		ntried++;
		snapshot = RegisterSnapshot(GetLatestSnapshot());
		summarize_run(rel, snapshot, run);
		UnregisterSnapshot(snapshot);
		/*
		 * While it was read, somebody may have written into it, or, in servers
		 * whose inserts give the map's page their LSN, near it.  There is no use
		 * in trying the runs beside it now.
		 */
		if (weir_runs_unchanged(rel, run))
		{
			weir_runs_put(rel, run);
			n++;
		}
		else
			changing = weir_runs_map_page(run);
	}
	MemoryContextSwitchTo(old);
	MemoryContextDelete(cxt);
	return n;
}
