/*-------------------------------------------------------------------------
 *
 * order.h
 *	  The order of transactions, shared by all backends: numbers, commit slots,
 *	  the horizon, and the ring in which commits are published.
 *
 *-------------------------------------------------------------------------
 */
#ifndef WEIR_ORDER_H
#define WEIR_ORDER_H

#include "pg_weir.h"

#include "shmem.h"

/*
 * PRE_COMMIT: take a number and an arrival stamp and enter this backend's
 * commit slot.  Idempotent inside a transaction.  Leaves by publish or leave.
 */
extern WeirNumber weir_order_enter(TimestampTz *arrival);

/*
 * The end of PRE_COMMIT: see to it that the commit record will end beyond the
 * number, so that no later life of the server can begin below it.
 */
extern void weir_order_cover(void);

/*
 * COMMIT: publish n entries (number, xid, places filled) and leave the slot;
 * then wake the workers.  Neither allocates nor raises.
 */
extern void weir_order_publish(WeirRingEntry *entries, int n);
extern void weir_order_leave(void); /* ABORT; no-op if not entered */

/* Set this worker's latch when a slot is left (once), or no more. */
extern void weir_order_wait(int worker, bool waits);

/*
 * The horizon H: every transaction with number < H has ended, and if it
 * committed it is visible to a snapshot taken after this call and is in the
 * ring before *ring_head (unless overwritten).  No later one gets a number < H.
 */
extern WeirNumber weir_order_horizon(uint64 *ring_head);
/* The highest number that anybody has been given. */
extern WeirNumber weir_order_highest(void);

/* What weir.wait_for waits for: position >= this covers every transaction of
 * the stream that committed before the call. */
extern WeirNumber weir_order_committed(Oid stream);
/* The same without that wait; s: its entry or NULL; caller holds order_lock. */
extern WeirNumber weir_order_last(const WeirStreamShared *s, Oid stream);

#endif /* WEIR_ORDER_H */
