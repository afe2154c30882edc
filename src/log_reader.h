/*-------------------------------------------------------------------------
 *
 * log_reader.h
 *	  The committed transactions of a stream, for who consumes them: which are
 *	  next, and the chunks of each.
 *
 *-------------------------------------------------------------------------
 */
#ifndef WEIR_LOG_READER_H
#define WEIR_LOG_READER_H

#include "pg_weir.h"

#include "utils/rel.h"
#include "utils/snapshot.h"

/*
 * A reader yields the committed transactions of one stream in number order,
 * each once, strictly after a position, and stops at the horizon.  It reads
 * the ring when it can and scans the log when it must (start, ring overrun,
 * changed file).  Process-local.
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
 * can be had by peek, one by one.
 */
extern WeirNumber weir_log_reader_poll(WeirLogReader *reader, Relation rel);
/* Cheap check without a transaction: is there perhaps something to do? */
extern bool weir_log_reader_pending(WeirLogReader *reader);
/* Is the next transaction there, but above the horizon? */
extern bool weir_log_reader_waits(WeirLogReader *reader);
/* The next transaction < horizon; false: none.  published_at is 0 when it came
 * from a scan.  Advance steps over it. */
extern bool weir_log_reader_peek(WeirLogReader *reader, WeirTxn *txn,
								 TimestampTz *published_at);
/* Has it yielded all there is, not only as much as it keeps? */
extern bool weir_log_reader_is_through(WeirLogReader *reader);
extern void weir_log_reader_advance(WeirLogReader *reader);
/* Everything < this number has been yielded. */
extern WeirNumber weir_log_reader_done_before(WeirLogReader *reader);

/*
 * The chunks of one transaction in log order, copied out and joined.  Places
 * that do not lead to txn->nchunks of them are followed by a scan of the whole
 * file; if that does not find them either the log is damaged (XX001).
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

#endif /* WEIR_LOG_READER_H */
