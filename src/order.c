/*-------------------------------------------------------------------------
 *
 * order.c
 *	  The order of transactions: numbers, commit slots, the horizon, the ring.
 *
 * A transaction that writes to streams enters its backend's commit slot while it
 * commits, and gets a number and an arrival stamp there, which go into its last
 * chunk.  Once its commit is visible it is published: an entry for each of its
 * streams goes into the ring, the slot is left, workers are woken.
 *
 * Relies on stream.c (and portal.c), which enters and covers in PRE_COMMIT,
 * publishes or leaves at COMMIT and leaves at ABORT; guarantees invariant 2 of README.md: numbers
 * grow along commits, below the horizon nothing is yet to come, and no later life
 * of the server hands out a number at or below one that is in the log, or a
 * position, of this one.
 *
 * States of a backend's commit slot: free -> entered (PRE_COMMIT) -> free
 * (COMMIT after publishing, or ABORT).  The horizon is the smallest number in a
 * slot, or the next number if there is none.  See weir_order_horizon.
 *
 * The ring holds the last WEIR_RING_SIZE entries of all streams, in the order in
 * which they were published, which is not that of numbers.  Nobody waits for
 * those who read it: who has fallen behind by more reads the log.
 *
 * Locks: order_lock for all of it, exclusively but for those who only look at
 * the ring or at what was published; directory_lock before that for who wakes
 * workers.  Both are held without I/O, allocation or waiting.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xlog.h"
#include "access/xloginsert.h"
#include "access/xlogrecord.h"
#include "catalog/pg_control.h"
#include "miscadmin.h"
#include "storage/latch.h"

#include "compat.h"
#include "debug.h"
#include "order.h"
#include "shmem.h"

static bool order_entered = false;
static WeirNumber order_number;
static XLogRecPtr order_lsn; /* WAL insert position when it was given */
static TimestampTz order_arrival;

/*
 * The start of all numbers of this life.  The log has none at or above it: each
 * is below the end of its commit record (weir_order_cover), which is in the WAL
 * that we have replayed.  Nor is a position: that is below some horizon, and
 * what is below a horizon was given to those whose commit or abort record had
 * been written, a record each, or is the start of an earlier life.  Caller holds
 * order_lock exclusively.
 */
static void
seed_numbers(void)
{
	if (weir_shared->boot_number == WEIR_NO_NUMBER)
	{
		/* before that there is no insert position, and it is asked for once */
		Ensure(!RecoveryInProgress(), "numbers are asked for in recovery");
		weir_shared->boot_number = GetXLogInsertRecPtr();
		weir_shared->boot_xid = ReadNextFullTransactionId();
		weir_shared->last_number = weir_shared->boot_number;
	}
}

WeirNumber
weir_order_enter(TimestampTz *arrival)
{
	WeirCommitSlot *slots;
	int nslots;

	if (!order_entered)
	{
		slots = weir_shmem_commit_slots(&nslots);
		Ensure(weir_my_proc_number() < nslots, "process %d has no commit slot",
			   weir_my_proc_number());

		LWLockAcquire(&weir_shared->order_lock, LW_EXCLUSIVE);
		seed_numbers();
		order_lsn = GetXLogInsertRecPtr();
		order_number =
			Max(weir_shared->last_number + 1, (WeirNumber) order_lsn);
		weir_shared->last_number = order_number;
		order_arrival = Max(weir_shared->last_arrival, weir_now());
		weir_shared->last_arrival = order_arrival;
		slots[weir_my_proc_number()].number = order_number;
		slots[weir_my_proc_number()].arrival = order_arrival;
		weir_shared->ncommitting++;
		order_entered = true;
		LWLockRelease(&weir_shared->order_lock);
	}
	*arrival = order_arrival;
	return order_number;
}

/*
 * The numbers of many who commit at the same time are ahead of WAL: one of them
 * could be durable in the log, and the next start begin below it.  A commit
 * record alone moves WAL by a record's header; what lacks is filled up.
 */
void
weir_order_cover(void)
{
	XLogRecPtr lsn = order_lsn;

	if (!order_entered || order_number < lsn + SizeOfXLogRecord)
		return;
	lsn = GetXLogInsertRecPtr();
	if (order_number < lsn + SizeOfXLogRecord)
		return;
	XLogBeginInsert();
	XLogRegisterData(palloc0(order_number - lsn), order_number - lsn);
	(void) XLogInsert(RM_XLOG_ID, XLOG_NOOP);
}

/* Caller holds order_lock exclusively. */
static void
leave_slot(void)
{
	WeirCommitSlot *slots;
	int nslots;

	slots = weir_shmem_commit_slots(&nslots);
	slots[weir_my_proc_number()].number = WEIR_NO_NUMBER;
	weir_shared->ncommitting--;
	order_entered = false;
}

/* Caller holds directory_lock. */
static void
wake_worker(int i)
{
	WeirWorkerShared *w = &weir_shared->workers[i];

	/* costs a memory access while the worker is awake */
	if (w->in_use && w->latch != NULL)
		SetLatch(w->latch);
}

/*
 * A slot was left: those who wait for the horizon look again.  Caller holds
 * directory_lock, and order_lock exclusively.
 */
static void
wake_waiting(void)
{
	for (int i = 0; weir_shared->nwaiting > 0 && i < WEIR_MAX_WORKERS; i++)
	{
		if (!weir_shared->workers[i].waits)
			continue;
		weir_shared->workers[i].waits = false;
		weir_shared->nwaiting--;
		wake_worker(i);
	}
}

void
weir_order_wait(int worker, bool waits)
{
	WeirWorkerShared *w = &weir_shared->workers[worker];

	LWLockAcquire(&weir_shared->order_lock, LW_EXCLUSIVE);
	if (w->waits != waits)
		weir_shared->nwaiting += waits ? 1 : -1;
	w->waits = waits;
	LWLockRelease(&weir_shared->order_lock);
}

void
weir_order_leave(void)
{
	if (!order_entered)
		return;
	LWLockAcquire(&weir_shared->directory_lock, LW_SHARED);
	LWLockAcquire(&weir_shared->order_lock, LW_EXCLUSIVE);
	leave_slot();
	wake_waiting();
	LWLockRelease(&weir_shared->order_lock);
	LWLockRelease(&weir_shared->directory_lock);
}

static bool
is_of_stream(const WeirStreamShared *s, const WeirRingEntry *e)
{
	return s != NULL && s->in_use && s->stream == e->stream && s->db == e->db;
}

/*
 * The highest number published in a stream, or, if it has no place in
 * streams[], in any of those.  Numbers from before the start are not above
 * boot_number.  Caller holds order_lock.
 */
WeirNumber
weir_order_last(const WeirStreamShared *s, Oid stream)
{
	WeirNumber last = s != NULL && s->in_use && s->stream == stream
						  ? s->last_published
						  : weir_shared->last_unlisted;

	return Max(weir_shared->boot_number, last);
}

/*
 * Take note of a publication.  Returns the worker to be woken, -1: nobody, or
 * -2: unknown.  Caller holds directory_lock and order_lock.
 */
static int
note_published(const WeirRingEntry *e)
{
	WeirStreamShared *s = NULL;

	if (e->slot >= 0)
		s = &weir_shared->streams[e->slot];
	/* it may have been given a place since */
	for (int i = 0; i < WEIR_MAX_STREAMS && !is_of_stream(s, e); i++)
		s = &weir_shared->streams[i];
	if (!is_of_stream(s, e))
	{
		weir_shared->last_unlisted =
			Max(weir_shared->last_unlisted, e->txn.number);
		return -2;
	}
	s->last_published = Max(s->last_published, e->txn.number);
	s->last_arrival = Max(s->last_arrival, e->txn.arrival);
	if (e->txn.watermark > s->mark.watermark)
	{
		s->mark.watermark = e->txn.watermark;
		s->mark.arrival = e->txn.arrival;
		s->mark.kind = e->txn.kind;
	}
	if (TIMESTAMP_IS_NOEND(e->txn.watermark))
		pg_atomic_write_u32(&s->ended, WEIR_END_YES);
	return s->worker;
}

void
weir_order_publish(WeirRingEntry *entries, int n)
{
	TimestampTz now = weir_now();
	bool wake_all = false;

	/* weir_order_cover: the commit record is in WAL */
	Assert(!order_entered || order_number < GetXLogInsertRecPtr());
	weir_debug_point_critical("order_publish");
	LWLockAcquire(&weir_shared->directory_lock, LW_SHARED);
	LWLockAcquire(&weir_shared->order_lock, LW_EXCLUSIVE);
	for (int i = 0; i < n; i++)
	{
		int worker;

		entries[i].published_at = now;
		weir_shared->ring[weir_shared->ring_head % WEIR_RING_SIZE] = entries[i];
		weir_shared->ring_head++;
		worker = note_published(&entries[i]);
		if (worker >= 0)
			wake_worker(worker);
		else if (worker == -2)
			wake_all = true;
	}
	if (order_entered)
		leave_slot();
	wake_waiting();
	LWLockRelease(&weir_shared->order_lock);
	LWLockRelease(&weir_shared->directory_lock);
	if (wake_all)
		weir_shmem_wake_workers(MyDatabaseId, false);
}

/*
 * Why it is a horizon: numbers are given under order_lock and grow.  A number
 * below the result either was taken by a backend that has left its slot, which
 * it does after its commit is visible and published, or by none.  A backend that
 * enters later gets a number above last_number.
 */
WeirNumber
weir_order_horizon(uint64 *ring_head)
{
	WeirNumber horizon;

	LWLockAcquire(&weir_shared->order_lock, LW_EXCLUSIVE);
	seed_numbers();
	horizon = weir_shared->last_number + 1;
	if (weir_shared->ncommitting > 0)
	{
		int nslots;
		WeirCommitSlot *slots = weir_shmem_commit_slots(&nslots);

		for (int i = 0; i < nslots; i++)
			if (slots[i].number != WEIR_NO_NUMBER)
				horizon = Min(horizon, slots[i].number);
	}
	*ring_head = weir_shared->ring_head;
	LWLockRelease(&weir_shared->order_lock);
	return horizon;
}

WeirNumber
weir_order_highest(void)
{
	WeirNumber highest;

	LWLockAcquire(&weir_shared->order_lock, LW_EXCLUSIVE);
	seed_numbers();
	highest = weir_shared->last_number;
	LWLockRelease(&weir_shared->order_lock);
	return highest;
}

/*
 * A transaction is visible to others a moment before it is published.  So that
 * an event somebody has seen is covered, wait (briefly: a commit may hang in
 * synchronous replication, and is then not visible) for those that were
 * committing when we were called.
 */
WeirNumber
weir_order_committed(Oid stream)
{
	WeirStreamShared *s = weir_shmem_stream(stream, false);
	WeirNumber last = WEIR_NO_NUMBER;
	WeirNumber result;

	for (int i = 0;; i++)
	{
		bool committing = false;
		int nslots;
		WeirCommitSlot *slots = weir_shmem_commit_slots(&nslots);

		LWLockAcquire(&weir_shared->order_lock, LW_EXCLUSIVE);
		seed_numbers();
		if (i == 0)
			last = weir_shared->last_number;
		result = weir_order_last(s, stream);
		if (weir_shared->ncommitting > 0)
		{
			for (int j = 0; j < nslots; j++)
				if (slots[j].number != WEIR_NO_NUMBER &&
					slots[j].number <= last && slots[j].number > result)
					committing = true;
		}
		LWLockRelease(&weir_shared->order_lock);
		if (!committing || i >= 1000)
			return result;
		CHECK_FOR_INTERRUPTS();
		pg_usleep(100);
	}
}
