/*-------------------------------------------------------------------------
 *
 * log.h
 *	  The append-only log of a stream: append, read from a position, trim.
 *	  Chunk images (chunk.h) are heap tuples of the stream's own relfilenode,
 *	  written by heap's own insert through a shallow copy of the Relation that
 *	  bears a private one-column descriptor.
 *
 *-------------------------------------------------------------------------
 */
#ifndef WEIR_LOG_H
#define WEIR_LOG_H

#include "pg_weir.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/tableam.h"
#include "chunk.h"
#include "shmem.h"
#include "storage/itemptr.h"
#include "utils/rel.h"
#include "utils/snapshot.h"

/* ---- append ---- */

/* The longest image that is one tuple; longer ones are cut into pieces. */
#define WEIR_CHUNK_MAX (MaxHeapTupleSize - MAXALIGN(SizeofHeapTupleHeader))

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

/* The visible heads of one pinned page. */
typedef struct WeirBlockChunk
{
	OffsetNumber offset;
	bool adopts; /* an ADOPT record: of no transaction */
	WeirChunkHeader header;
} WeirBlockChunk;

extern int weir_log_block_chunks(Relation rel, Snapshot snapshot, Buffer buffer,
								 WeirBlockChunk *chunks);

/* ---- reading transactions, for workers ---- */

/*
 * A reader yields the committed transactions of one stream in number order,
 * each once, strictly after a position, and stops at the horizon.  It reads
 * the ring when it can and scans the log when it must (start, ring overrun,
 * changed file, chunk counts that differ).  Process-local.
 */
typedef struct WeirLogReader WeirLogReader;

extern WeirLogReader *weir_log_reader_create(Oid stream, WeirPosition after,
											 MemoryContext cxt);
/*
 * One that yields what a snapshot shows, beyond the position, however much of it
 * has been trimmed since; last, under the number WEIR_UNNUMBERED, transactions
 * that were prepared and have no number yet.  The caller keeps the snapshot.
 */
#define WEIR_UNNUMBERED ((WeirNumber) (PG_INT64_MAX - 1))
extern WeirLogReader *weir_log_reader_create_at(Oid stream, WeirPosition after,
												Snapshot snapshot,
												MemoryContext cxt);
extern Snapshot weir_log_reader_snapshot(const WeirLogReader *reader);
extern void weir_log_reader_free(WeirLogReader *reader);

/*
 * Look at the ring and the slots, scan if needed.  Needs a transaction and the
 * stream opened (AccessShareLock).  Returns the horizon; transactions below it
 * can be taken with next.
 */
extern WeirNumber weir_log_reader_poll(WeirLogReader *reader, Relation rel);
/* Cheap check without a transaction: is there perhaps something to do? */
extern bool weir_log_reader_pending(WeirLogReader *reader);
/* Is the next transaction there, but above the horizon? */
extern bool weir_log_reader_waits(WeirLogReader *reader);
/* Peek at / take the next transaction < horizon; false: none. published_at is
 * 0 when the transaction came from a scan. */
extern bool weir_log_reader_peek(WeirLogReader *reader, WeirTxn *txn,
								 TimestampTz *published_at);
extern void weir_log_reader_advance(WeirLogReader *reader);
/* Everything < this number has been yielded. */
extern WeirNumber weir_log_reader_done_before(WeirLogReader *reader);

/*
 * The chunks of one transaction in log order, copied out and joined.  Checks
 * the count against txn->nchunks, falling back to a scan of the whole file,
 * then Ensure()s.
 */
typedef struct WeirChunkCursor WeirChunkCursor;

extern WeirChunkCursor *weir_log_chunks_begin(Relation rel, Snapshot snapshot,
											  const WeirTxn *txn);
/* NULL at the end; image palloc'd in the current context. */
extern char *weir_log_chunks_next(WeirChunkCursor *c, Size *len);
extern void weir_log_chunks_end(WeirChunkCursor *c);
/* Does the snapshot show all chunks of this transaction? */
extern bool weir_log_txn_visible(Relation rel, Snapshot snapshot,
								 const WeirTxn *txn);

/*
 * The watermark of the stream's log as of a snapshot: max over its visible
 * records; of several, the first counts.  WEIR_NO_TIME if none.  Scans headers.
 */
extern void weir_log_watermark(Relation rel, Snapshot snapshot,
							   WeirWatermark *mark);
/* How many events the snapshot shows.  Scans headers. */
extern uint64 weir_log_count(Relation rel, Snapshot snapshot);

/* ---- prepared transactions ---- */
/* Refill shared prepared[] from the log of this stream (worker start). */
extern void weir_log_collect_prepared(Relation rel);
/* Adopters share, the collector excludes; until the transaction's end.  False:
 * an adopter could not have it at once. */
extern bool weir_log_lock_adoption(Oid stream, bool collecting);
/* False: the shared table is full.  Adding twice is a no-op. */
extern bool weir_log_add_prepared(Oid stream, RelFileNumber filenumber,
								  const WeirTxn *txn);
extern void weir_log_remove_prepared(Oid stream, FullTransactionId xid);
/* Has a prepared transaction committed into the stream that nobody has given a
 * number yet? */
extern bool weir_log_has_unnumbered(Oid stream);

/* ---- trim ---- */
/*
 * Delete whole transactions with number <= up_to and arrival < older_than
 * (own transaction: caller has started one and holds the stream's
 * RowExclusiveLock and weir_log_lock_history), oldest first, as long as at least
 * keep_bytes remain.  *trimmed, which the caller has cleared, is added to.
 */
typedef struct WeirTrimmed
{
	uint64 bytes;		   /* freed */
	WeirNumber last;	   /* highest number of events deleted */
	TimestampTz max_time;  /* largest time of them; PG_INT64_MAX: some have
							* none, WEIR_NO_TIME: there are no events */
	TimestampTz watermark; /* the W that went with them: the caller has to
							 * write a record that raises W to it;
							 * WEIR_NO_TIME: what remains does */
} WeirTrimmed;

extern void weir_log_trim(Relation rel, WeirPosition up_to,
						  TimestampTz older_than, uint64 keep_bytes,
						  WeirTrimmed *trimmed);
/* The same of all events that are there; perhaps of some that were deleted. */
extern TimestampTz weir_log_max_time(Relation rel);
/*
 * Were everything with number <= up_to to go that is older than older_than, or
 * in excess of keep_bytes (PG_INT64_MAX: no limit): held[i] is how many bytes of
 * that have numbers > after[i].
 */
extern void weir_log_held(Relation rel, WeirPosition up_to,
						  TimestampTz older_than, uint64 keep_bytes,
						  const WeirPosition *after, uint64 *held, int n);
/*
 * Those who trim exclude those who begin to read a stream's history, until the
 * transaction's end.  False: a trimmer could not have it at once.
 */
extern bool weir_log_lock_history(Oid stream, bool trimming);
/* After it was refused: by one who trims?  Else it is held until the end of the
 * transaction, as by one who relies on the history. */
extern bool weir_log_is_being_trimmed(Oid stream);

/* ---- summaries (runs.h) ---- */
/*
 * Summarize runs that want it, for about max_ms (0: all of them); how many, and
 * whether there are more.  The caller holds ShareUpdateExclusiveLock on the
 * stream, and has a transaction that may write.
 */
extern int weir_log_summarize(Relation rel, int max_ms, bool *more);

/* ---- rewrite (VACUUM FULL) ---- */
extern void weir_log_rewrite(Relation old_rel, Relation new_rel,
							 TransactionId oldest_xmin,
							 TransactionId freeze_xid, MultiXactId multi_cutoff,
							 double *rows, double *vacuumed,
							 double *recently_dead);

#endif /* WEIR_LOG_H */
