/*-------------------------------------------------------------------------
 *
 * log.h
 *	  The append-only log of a stream: append, read chunks, rewrite.  Chunk
 *	  images (chunk.h) are heap tuples of the stream's own relfilenode, written
 *	  by heap's own insert through a shallow copy of the Relation that bears a
 *	  private one-column descriptor.
 *
 *-------------------------------------------------------------------------
 */
#ifndef WEIR_LOG_H
#define WEIR_LOG_H

#include "pg_weir.h"

#include "access/tableam.h"
#include "storage/itemptr.h"
#include "utils/rel.h"
#include "utils/snapshot.h"

#include "chunk.h"
#include "compat.h"

/* ---- append ---- */

/*
 * Write one chunk image into the stream under command id cid as the current
 * (sub)transaction, cut into pieces when it is longer than a page allows.
 * Returns the TID of the head.  options: HEAP_INSERT_* of the caller.
 * Row counts of pgstat are the caller's.
 */
extern ItemPointerData weir_log_append(Relation rel, const char *image,
									   Size len, CommandId cid, int options);

/* Merge the place of a chunk into a transaction's places (never overflows:
 * ranges are joined). */
extern void weir_places_add(WeirPlace *places, int *nplaces, ItemPointer tid);

/* ---- reading chunks ---- */

/*
 * A scan of all chunk heads visible to a snapshot, in block order (or any
 * range of blocks).  Pieces are joined.  The image is good until the next call.
 */
typedef struct WeirLogScan WeirLogScan;

extern WeirLogScan *weir_log_scan_begin(Relation rel, Snapshot snapshot,
										BlockNumber start, BlockNumber nblocks);
/* One process's part of a parallel scan. */
extern WeirLogScan *
weir_log_scan_begin_parallel(Relation rel, Snapshot snapshot,
							 ParallelTableScanDesc parallel);
extern bool weir_log_scan_next(WeirLogScan *scan, bool forward,
							   const char **image, Size *len, ItemPointer tid);
/* Pass over chunks whose events are all before min_time or after max_time, before
 * anything is read; without reading them where the scan is whole and goes forward
 * only (pass_over_runs).  How many chunks with rows weir_log_scan_next has
 * returned and passed over. */
extern void weir_log_scan_limit(WeirLogScan *scan, TimestampTz min_time,
								TimestampTz max_time, bool pass_over_runs);
extern void weir_log_scan_counts(WeirLogScan *scan, uint64 *nread,
								 uint64 *nskipped);
/* Header only: image is not joined from pieces; for collecting. */
typedef struct WeirLogHeader
{
	WeirChunkHeader chunk;
	TimestampTz min_time; /* WEIR_NO_TIME: none */
	TimestampTz max_time;
	bool has_record;
	WeirRecord record; /* zeroes: none */
	ItemPointerData tid;
	Size len; /* of the joined image; of a piece, its own */
} WeirLogHeader;

extern bool weir_log_scan_next_header(WeirLogScan *scan, WeirLogHeader *h);
extern void weir_log_scan_rewind(WeirLogScan *scan);
extern void weir_log_scan_end(WeirLogScan *scan);

/* The chunk at tid, if visible (palloc'd copy in the current context; huge
 * allowed); false if not visible or not a head. */
extern bool weir_log_fetch(Relation rel, Snapshot snapshot, ItemPointer tid,
						   char **image, Size *len);

/* The visible heads of one pinned page; only: on this line pointer, if it is
 * one. */
typedef struct WeirBlockChunk
{
	OffsetNumber offset;
	bool adopts; /* an ADOPT record: of no transaction */
	WeirChunkHeader header;
} WeirBlockChunk;

extern int weir_log_block_chunks(Relation rel, Snapshot snapshot, Buffer buffer,
								 OffsetNumber only, WeirBlockChunk *chunks);

/* ---- what the log says ---- */

/*
 * The watermark of the stream's log as of a snapshot: max over its visible
 * records; of several, the first counts.  WEIR_NO_TIME if none.  Scans headers.
 */
extern void weir_log_watermark(Relation rel, Snapshot snapshot,
							   WeirWatermark *mark);
/* How many events the snapshot shows.  Scans headers. */
extern uint64 weir_log_count(Relation rel, Snapshot snapshot);

/*
 * Object locks on the pg_class row of a stream, by their objsubid; nobody else
 * takes such locks.  All are released at the end of the transaction.
 */
typedef enum WeirStreamLock
{
	WEIR_LOCK_ADOPTION = 1, /* prepared transactions are given numbers */
	WEIR_LOCK_HISTORY,		/* the log is trimmed, or relied on */
	WEIR_LOCK_END			/* the stream ends */
} WeirStreamLock;

/* ---- prepared transactions ---- */
/* Refill shared prepared[] from the log of this stream: when a worker starts, and
 * before the first COMMIT PREPARED of one that is older than the server's life.
 * False: not waited for who adopts, or collects, at the moment. */
extern bool weir_log_collect_prepared(Relation rel, bool wait);
/* Adopters share, until the transaction's end; the collector excludes.  False: it
 * could not be had at once. */
extern bool weir_log_lock_adoption(Oid stream);
/* False: the shared table is full.  Adding twice is a no-op. */
extern bool weir_log_add_prepared(Oid stream, RelFileNumber filenumber,
								  const WeirTxn *txn);
extern void weir_log_remove_prepared(Oid stream, FullTransactionId xid);
/* Has a prepared transaction committed into the stream that nobody has given a
 * number yet? */
extern bool weir_log_has_unnumbered(Oid stream);
/* Has it?  Of one that is not running. */
extern bool weir_log_did_commit(FullTransactionId xid);

/* ---- rewrite (VACUUM FULL) ---- */
extern void weir_log_rewrite(Relation old_rel, Relation new_rel,
							 TransactionId oldest_xmin,
							 TransactionId freeze_xid, MultiXactId multi_cutoff,
							 double *rows, double *vacuumed,
							 double *recently_dead);

#endif /* WEIR_LOG_H */
