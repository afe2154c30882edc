/*-------------------------------------------------------------------------
 *
 * log_trim.c
 *	  Trimming the log of a stream: what may go, its deletion, and how much is
 *	  held back from going.
 *
 * Whole transactions go, in the order of their numbers, and up to the first that
 * has to stay: what is recorded of it is the highest number, and below that
 * nobody may be left, or yet come; so nothing goes beyond the horizon either.
 * Runs that have nothing that goes are not read (runs.h).
 *
 * Relies on weir_log_collect for what is there.  Guarantees that the watermark
 * stays what it was, by what remains (an empty transaction may be left for it) or
 * by a record that the caller is asked for.
 *
 * Locks: those who trim exclude each other and the beginning of a view's history
 * by an object lock (weir_log_lock_history).
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_class.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "storage/bufmgr.h"
#include "storage/lmgr.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

#include "debug.h"
#include "log.h"
#include "log_private.h"
#include "log_trim.h"
#include "order.h"
#include "runs.h"

bool
weir_log_lock_history(Oid stream, bool trimming)
{
	LOCKTAG tag;

	if (!trimming)
	{
		LockDatabaseObject(RelationRelationId, stream, WEIR_LOCK_HISTORY,
						   ShareLock);
		return true;
	}
	SET_LOCKTAG_OBJECT(tag, MyDatabaseId, RelationRelationId, stream,
					   WEIR_LOCK_HISTORY);
	return LockAcquire(&tag, ExclusiveLock, false, true) !=
		   LOCKACQUIRE_NOT_AVAIL;
}

bool
weir_log_is_being_trimmed(Oid stream)
{
	LOCKTAG tag;

	SET_LOCKTAG_OBJECT(tag, MyDatabaseId, RelationRelationId, stream,
					   WEIR_LOCK_HISTORY);
	return LockAcquire(&tag, ShareLock, false, true) == LOCKACQUIRE_NOT_AVAIL;
}

typedef struct TrimTxn
{
	WeirNumber number;
	TimestampTz arrival;
	TimestampTz watermark;
	uint64 nbytes;
	uint64 nrows;
	uint32 nchunks;
	FullTransactionId xid;
} TrimTxn;

typedef struct TrimState
{
	WeirPosition up_to;
	TimestampTz older_than;
	uint64 total;
	TimestampTz kept; /* W of transactions that are not in txns */
	TrimTxn *txns;
	Size n;
	Size space;
} TrimState;

/* A transaction to delete. */
typedef struct Doomed
{
	FullTransactionId xid; /* hash key */
	uint32 left;		   /* of its chunks */
} Doomed;

static void
trim_add(TrimState *t, const TrimTxn *txn)
{
	if (t->n == t->space)
	{
		t->space = t->space ? t->space * 2 : 1024;
		t->txns = t->txns ? repalloc_huge(t->txns, t->space * sizeof(TrimTxn))
						  : palloc(t->space * sizeof(TrimTxn));
	}
	t->txns[t->n++] = *txn;
}

static void
trim_collect(void *arg, const WeirTxn *txn)
{
	TrimState *t = arg;
	TrimTxn add;

	if (txn->number == WEIR_NO_NUMBER || txn->number > t->up_to ||
		txn->arrival >= t->older_than)
	{
		if (txn->number != WEIR_NO_NUMBER)
			t->kept = Max(t->kept, txn->watermark);
		return;
	}
	add.number = txn->number;
	add.arrival = txn->arrival;
	add.watermark = txn->watermark;
	add.nbytes = txn->nbytes;
	add.nrows = txn->nrows;
	add.nchunks = txn->nchunks;
	add.xid = txn->xid;
	trim_add(t, &add);
}

static int
compare_trim(const void *a, const void *b)
{
	WeirNumber x = ((const TrimTxn *) a)->number;
	WeirNumber y = ((const TrimTxn *) b)->number;

	return (x > y) - (x < y);
}

/*
 * Collect what may go, and sort it.  Runs marked to be skipped have none of it;
 * their bytes and their W count.
 */
static void
trim_read(TrimState *t, Relation rel, Snapshot snapshot, const WeirRuns *runs)
{
	WeirLogCollect collect = {.rel = rel,
							  .snapshot = snapshot,
							  .from = WEIR_NO_NUMBER,
							  .strict = true,
							  .runs = runs,
							  .callback = trim_collect,
							  .arg = t};

	weir_log_collect(&collect);
	t->total = collect.nbytes;
	for (int i = 0; i < runs->n; i++)
		if (runs->runs[i].skip)
		{
			t->total += runs->runs[i].nbytes;
			t->kept = Max(t->kept, runs->runs[i].watermark);
		}
	if (t->n > 1)
		qsort(t->txns, t->n, sizeof(TrimTxn), compare_trim);
}

/*
 * Skip runs that have no record of a transaction that may go.  What goes goes by
 * number: of the others, no more than it takes, those with the lowest numbers.
 * Returns the number below which all records are in what is not skipped.
 */
static WeirNumber
choose_runs_to_trim(Relation rel, WeirRuns *runs, WeirPosition up_to,
					TimestampTz older_than, uint64 keep_bytes)
{
	WeirRun **by_number = palloc(Max(runs->n, 1) * sizeof(WeirRun *));
	uint64 most = (uint64) RelationGetNumberOfBlocks(rel) * BLCKSZ;
	uint64 taken = 0;
	WeirNumber limit = PG_UINT64_MAX;
	int n = 0;

	for (int i = 0; i < runs->n; i++)
	{
		WeirRun *run = &runs->runs[i];

		most = most - (uint64) run->blocks * BLCKSZ + run->nbytes;
		run->skip = run->min_arrival >= older_than || run->min_number > up_to;
		if (!run->skip)
			by_number[n++] = run;
	}
	if (keep_bytes > 0)
	{
		qsort(by_number, n, sizeof(WeirRun *), weir_runs_compare_numbers);
		for (int i = 0; i < n; i++)
		{
			if (most > keep_bytes && taken < most - keep_bytes)
				taken += by_number[i]->nbytes;
			else
			{
				limit = Min(limit, by_number[i]->min_number);
				by_number[i]->skip = true;
			}
		}
	}
	pfree(by_number);
	return limit;
}

/* The largest event time in a chunk, for those who must not miss any. */
static TimestampTz
newest_of(const WeirLogHeader *h)
{
	if (h->chunk.nrows == 0)
		return WEIR_NO_TIME;
	return h->chunk.flags & WEIR_CHUNK_HAS_TIME ? h->max_time : PG_INT64_MAX;
}

/*
 * Delete everything of these transactions, an ADOPT record with the one it
 * numbers.  Returns how many rows that were; *newest goes up to their time.
 */
static uint64
delete_doomed(Relation rel, Snapshot snapshot, WeirRuns *runs, HTAB *doomed,
			  TimestampTz *newest)
{
	CommandId cid = GetCurrentCommandId(true);
	WeirLogScan *scan =
		weir_log_scan_begin(rel, snapshot, 0, InvalidBlockNumber);
	WeirLogHeader h;
	uint64 nrows = 0;
	HASH_SEQ_STATUS seq;
	Doomed *d;

	for (int i = 0; i < runs->n; i++)
	{
		WeirRun *run = &runs->runs[i];

		for (int j = 0; run->skip && j < run->nopen; j++)
			run->skip =
				hash_search(doomed, &run->open[j], HASH_FIND, NULL) == NULL;
	}
	weir_log_scan_with_pieces(scan);
	weir_log_scan_pass_over(scan, runs);
	while (weir_log_scan_next_header(scan, &h))
	{
		bool adopts = h.has_record && h.record.kind == WEIR_RECORD_ADOPT;

		CHECK_FOR_INTERRUPTS();
		d = hash_search(doomed, adopts ? &h.record.adopts : &h.chunk.xid,
						HASH_FIND, NULL);
		if (d == NULL)
			continue;
		if (!weir_log_delete(rel, &h.tid, cid))
			ereport(ERROR,
					(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
					 errmsg("log of stream \"%s\" was trimmed concurrently",
							RelationGetRelationName(rel))));
		nrows += h.chunk.nrows;
		*newest = Max(*newest, newest_of(&h));
		if (!adopts && !(h.chunk.flags & WEIR_CHUNK_PIECE))
			d->left--;
	}
	weir_log_scan_end(scan);
	hash_seq_init(&seq, doomed);
	while ((d = hash_seq_search(&seq)) != NULL)
		Ensure(d->left == 0,
			   "transaction " UINT64_FORMAT " was trimmed in part",
			   U64FromFullTransactionId(d->xid));
	return nrows;
}

/*
 * Deletes in the order of numbers, as long as more than keep_bytes would
 * remain.  Lower numbers may stay, or come yet: of a transaction that is being
 * committed, or that looks young because the clock has been put back.
 */
void
weir_log_trim(Relation rel, WeirPosition up_to, TimestampTz older_than,
			  uint64 keep_bytes, WeirTrimmed *trimmed)
{
	MemoryContext cxt = AllocSetContextCreate(
		CurrentMemoryContext, "weir log trim", ALLOCSET_DEFAULT_SIZES);
	MemoryContext old = MemoryContextSwitchTo(cxt);
	Snapshot snapshot = RegisterSnapshot(GetLatestSnapshot());
	TrimState trim = {
		.up_to = up_to, .older_than = older_than, .kept = WEIR_NO_TIME};
	WeirRuns *runs = weir_runs_load(rel);
	WeirNumber limit =
		choose_runs_to_trim(rel, runs, up_to, older_than, keep_bytes);
	TimestampTz all;
	HTAB *doomed;
	uint64 freed = 0;

	trim_read(&trim, rel, snapshot, runs);
	/* those beyond may not be all that have such numbers: another time */
	while (trim.n > 0 && trim.txns[trim.n - 1].number >= limit)
	{
		trim.n--;
		trim.kept = Max(trim.kept, trim.txns[trim.n].watermark);
	}

	doomed = weir_log_xid_hash("weir doomed", sizeof(Doomed), cxt);
	all = trim.kept;
	for (Size i = 0; i < trim.n; i++)
		all = Max(all, trim.txns[i].watermark);
	for (Size i = 0; i < trim.n; i++)
	{
		TrimTxn *txn = &trim.txns[i];
		bool full = trim.total - freed - txn->nbytes < keep_bytes;
		Doomed *d;

		/* an empty record that holds W may as well stay */
		if (full ||
			(txn->nrows == 0 && txn->watermark == all && trim.kept < all))
		{
			trim.kept = Max(trim.kept, txn->watermark);
			if (!full)
				continue;
			for (i++; i < trim.n; i++)
				trim.kept = Max(trim.kept, trim.txns[i].watermark);
			break;
		}
		d = hash_search(doomed, &txn->xid, HASH_ENTER, NULL);
		d->left = txn->nchunks;
		freed += txn->nbytes;
		if (txn->nrows > 0)
			trimmed->last = Max(trimmed->last, txn->number);
	}
	if (trim.kept < all)
		trimmed->watermark = Max(trimmed->watermark, all);

	if (hash_get_num_entries(doomed) > 0)
	{
		uint64 nrows =
			delete_doomed(rel, snapshot, runs, doomed, &trimmed->max_time);

		/* one by hand, so that there is a place for the others */
		if (nrows > 0 && pgstat_should_count_relation(rel))
		{
			pgstat_count_heap_delete(rel);
			rel->pgstat_info->trans->tuples_deleted += nrows - 1;
		}
	}
	UnregisterSnapshot(snapshot);
	MemoryContextSwitchTo(old);
	MemoryContextDelete(cxt);
}

TimestampTz
weir_log_max_time(Relation rel)
{
	Snapshot snapshot = RegisterSnapshot(GetLatestSnapshot());
	WeirRuns *runs = weir_runs_load(rel);
	WeirLogScan *scan =
		weir_log_scan_begin(rel, snapshot, 0, InvalidBlockNumber);
	TimestampTz newest = WEIR_NO_TIME;
	WeirLogHeader h;

	for (int i = 0; i < runs->n; i++)
	{
		WeirRun *run = &runs->runs[i];

		run->skip = true;
		if (run->nrows > 0)
			newest = Max(newest, run->max_time);
	}
	weir_log_scan_pass_over(scan, runs);
	while (weir_log_scan_next_header(scan, &h))
	{
		CHECK_FOR_INTERRUPTS();
		newest = Max(newest, newest_of(&h));
	}
	weir_log_scan_end(scan);
	weir_runs_free(runs);
	UnregisterSnapshot(snapshot);
	return newest;
}

/*
 * A run whose transactions are all on one side of whatever is asked need not be
 * read: it is as if it were one transaction.  One in the midst of a long
 * transaction has no record: what it counts for, the run with the record says,
 * and both are read.
 */
static void
choose_runs_to_hold(TrimState *t, WeirRuns *runs, TimestampTz older_than,
					const WeirPosition *after, int n)
{
	HTAB *lengthy = weir_log_xid_hash("weir lengthy", sizeof(FullTransactionId),
									  CurrentMemoryContext);
	WeirPosition lowest = PG_UINT64_MAX;
	WeirPosition highest = WEIR_NO_NUMBER;

	for (int i = 0; i < n; i++)
	{
		lowest = Min(lowest, after[i]);
		highest = Max(highest, after[i]);
	}
	for (int i = 0; i < runs->n; i++)
	{
		WeirRun *run = &runs->runs[i];

		run->skip =
			run->max_number <= t->up_to &&
			(run->max_number <= lowest ||
			 (run->min_number > highest && run->min_number <= run->max_number &&
			  (run->max_arrival < older_than ||
			   run->min_arrival >= older_than)));
		for (int j = 0;
			 !run->skip && run->min_number > run->max_number && j < run->nopen;
			 j++)
			hash_search(lengthy, &run->open[j], HASH_ENTER, NULL);
	}
	for (int i = 0; i < runs->n; i++)
	{
		WeirRun *run = &runs->runs[i];
		TrimTxn as_one = {.number = Min(run->min_number, run->max_number),
						  .arrival = run->max_arrival,
						  .nbytes = run->nbytes};

		for (int j = 0; run->skip && j < run->nopen; j++)
			run->skip =
				hash_search(lengthy, &run->open[j], HASH_FIND, NULL) == NULL;
		if (run->skip)
			trim_add(t, &as_one);
	}
	hash_destroy(lengthy);
}

void
weir_log_held(Relation rel, WeirPosition up_to, TimestampTz older_than,
			  uint64 keep_bytes, const WeirPosition *after, uint64 *held, int n)
{
	MemoryContext cxt = AllocSetContextCreate(
		CurrentMemoryContext, "weir log held", ALLOCSET_DEFAULT_SIZES);
	MemoryContext old = MemoryContextSwitchTo(cxt);
	Snapshot snapshot = RegisterSnapshot(GetLatestSnapshot());
	TrimState trim = {
		.up_to = up_to, .older_than = DT_NOEND, .kept = WEIR_NO_TIME};
	WeirRuns *runs = weir_runs_load(rel);
	uint64 remain;
	bool full = keep_bytes == PG_INT64_MAX;

	memset(held, 0, n * sizeof(uint64));
	choose_runs_to_hold(&trim, runs, older_than, after, n);
	trim_read(&trim, rel, snapshot, runs);
	remain = trim.total;
	for (Size i = 0; i < trim.n; i++)
	{
		const TrimTxn *txn = &trim.txns[i];

		/* what a run that stands for itself has of one that is read counts
		 * with both */
		full = full || remain < txn->nbytes + keep_bytes;
		if (full && txn->arrival >= older_than)
			continue;
		remain -= Min(remain, txn->nbytes);
		for (int j = 0; j < n; j++)
			if (txn->number > after[j])
				held[j] += txn->nbytes;
	}
	UnregisterSnapshot(snapshot);
	MemoryContextSwitchTo(old);
	MemoryContextDelete(cxt);
}
