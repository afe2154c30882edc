/*-------------------------------------------------------------------------
 *
 * stream.h
 *	  The table access method "stream": INSERT takes a backend's rows and
 *	  hands them to the log in chunks, publishes at commit; SELECT scans the
 *	  retained events.
 *
 *-------------------------------------------------------------------------
 */
#ifndef WEIR_STREAM_H
#define WEIR_STREAM_H

#include "pg_weir.h"

#include "access/tableam.h"
#include "chunk.h"
#include "nodes/pathnodes.h"
#include "utils/rel.h"

/* weir_stream_handler(internal) returns table_am_handler is the SQL function */

/* From _PG_init: xact and subxact callbacks, the planner hook (ON CONFLICT) and
 * the executor hook (UPDATE, DELETE, MERGE, FOR UPDATE) that refuse, the path
 * hook and the methods of both CustomScans. */
extern void weir_stream_init(void);

/*
 * Write out this backend's pending rows of a relation (InvalidOid: all), as far
 * as they belong to the current subtransaction.
 */
extern void weir_stream_flush(Oid relid);

/* The largest event time that TRUNCATE has removed from a stream in this
 * transaction: weir_log_max_time. */
extern TimestampTz weir_stream_truncated_time(Oid relid);

/* Are there rows of this relation that an outer subtransaction must write? */
extern bool weir_stream_pending(Relation rel);

/*
 * Add a record without rows to the current transaction: a heartbeat, an idle
 * advance.  At commit W rises to watermark, after the rows of the transaction.
 */
extern void weir_stream_heartbeat(Relation rel, TimestampTz watermark,
								  WeirRecordKind kind);

/* Before COMMIT PREPARED: what is still prepared now is what it may be of, and is
 * adopted first.  What was prepared before the server's last start may have to be
 * found in the log; where it cannot be, a worker will. */
extern void weir_stream_before_commit_prepared(void);

/* Adopt ended prepared transactions, one of each stream: the current transaction's
 * record in the stream gives it its number.  Hook of COMMIT PREPARED. */
extern void weir_stream_adopt_prepared(void);

/* The same for the worker, which does not wait for a lock: of one place of
 * prepared[], if what is there has ended. */
extern bool weir_stream_has_ended_at(int place);
extern void weir_stream_adopt_at(int place);

/* Where a row that a scan has returned lies. */
typedef struct WeirRowPlace
{
	bool written;		   /* else only this transaction has it */
	ItemPointerData chunk; /* if written */
	uint32 chunk_no;	   /* if not */
	int row;			   /* in its chunk */
} WeirRowPlace;

/* The place behind a row's ctid; false: no row of a scan has it. */
extern bool weir_stream_row_place(const ItemPointerData *tid,
								  WeirRowPlace *place);

/*
 * ---- the batch scan ----
 * In a worker, the scan of the stream in a view's input query is a CustomScan
 * that returns the rows of the slice that is set.  The path hook looks at
 * weir_stream_in_worker; plans made so are for workers only.  Queries in the
 * view's functions read streams as they are, also the same one.
 */
typedef struct WeirSliceChunk
{
	WeirChunkReader *reader; /* opened; columns needed by any view */
	WeirNumber number;		 /* of the transaction */
	TimestampTz watermark;	 /* W before the transaction: its rows are
								 * judged by it */
	TimestampTz arrival;	 /* its rows' time in windows over now() */
} WeirSliceChunk;

typedef struct WeirSlice
{
	Oid stream;
	int nchunks;
	WeirSliceChunk *chunks;

	/* where the scan stands: the row it returned last */
	int at_chunk;
	int at_row;

	/* rows to leave out: events an on_error = skip view has given up on */
	int nskip;
	struct
	{
		int chunk;
		int row;
	} * skip;
} WeirSlice;

extern PGDLLIMPORT bool weir_stream_in_worker;
extern void weir_stream_set_slice(WeirSlice *slice); /* NULL: none */

#endif /* WEIR_STREAM_H */
