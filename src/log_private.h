/*-------------------------------------------------------------------------
 *
 * log_private.h
 *	  What log.c has for those who read or trim a whole log: log_reader.c,
 *	  log_trim.c, log_summary.c.
 *
 *-------------------------------------------------------------------------
 */
#ifndef WEIR_LOG_PRIVATE_H
#define WEIR_LOG_PRIVATE_H

#include "pg_weir.h"

#include "utils/hsearch.h"
#include "utils/rel.h"
#include "utils/snapshot.h"

#include "log.h"
#include "runs.h"

/* ---- scans ---- */

/*
 * Read what is not in runs that are to be passed over.  Before anything is read;
 * not for scans that are parallel, turn round, or have limits in blocks.
 */
extern void weir_log_scan_pass_over(WeirLogScan *scan, const WeirRuns *runs);
/* Pieces come as if they were heads. */
extern void weir_log_scan_with_pieces(WeirLogScan *scan);

/* ---- collecting transactions ---- */

/* txn->number is WEIR_NO_NUMBER for one that is not adopted. */
typedef void (*WeirLogCollectCallback)(void *arg, const WeirTxn *txn);

typedef struct WeirLogCollect
{
	/* set by the caller */
	Relation rel;
	Snapshot snapshot;
	WeirNumber from; /* 0: those without a number too */
	bool strict;	 /* an incomplete one is an error; with a dirty snapshot it
					  * is a running one */
	const WeirRuns *runs; /* those to skip; NULL: none.  A transaction that is
						   * wanted has no record in one of those */
	WeirLogCollectCallback callback;
	void *arg;
	/* ours */
	HTAB *collected;
	HTAB *adopted;
	/* for the caller */
	uint64 nbytes; /* of the images that were met, but for ADOPT records */
} WeirLogCollect;

/*
 * Scan all headers visible to the snapshot and report each transaction whose
 * chunks are all there, with number >= from.
 */
extern void weir_log_collect(WeirLogCollect *w);

/* A hash table by FullTransactionId. */
extern HTAB *weir_log_xid_hash(const char *name, Size entrysize,
							   MemoryContext cxt);

/* ---- delete ---- */

/* One tuple, a head or a piece.  False: somebody else has deleted it. */
extern bool weir_log_delete(Relation rel, ItemPointer tid, CommandId cid);

#endif /* WEIR_LOG_PRIVATE_H */
