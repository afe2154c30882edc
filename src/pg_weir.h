/*-------------------------------------------------------------------------
 *
 * pg_weir.h
 *	  The vocabulary: ids, positions, times and the few structs that cross
 *	  files.  No functions.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PG_WEIR_H
#define PG_WEIR_H

#include "postgres.h"

#include "access/transam.h"
#include "datatype/timestamp.h"
#include "storage/block.h"
#include "storage/off.h"

/*
 * Sequence number of a log record.  Taken while a transaction commits, from a
 * counter that is never behind the WAL insert position, so numbers grow across
 * restarts without being stored.  One counter serves all streams of a server;
 * a transaction has the same number in every stream it wrote to.
 * 0 is no number (a prepared transaction, before it is adopted).
 */
typedef uint64 WeirNumber;

#define WEIR_NO_NUMBER ((WeirNumber) 0)

/*
 * The position of a view in its stream's log: every committed transaction of
 * the stream with number <= position is consumed, none beyond it is.
 */
typedef WeirNumber WeirPosition;

/* No event time, no watermark yet: below every finite time. */
#define WEIR_NO_TIME ((TimestampTz) DT_NOBEGIN)

/*
 * Where the chunks of one transaction lie in the stream's file: a block range.
 * first..last are inclusive and may hold chunks of others (the chunk header's
 * xid tells).  offset is the line pointer when the range is one chunk on one
 * page, else 0.  Always a hint: relfilenumber, xid and chunk count are checked.
 */
typedef struct WeirPlace
{
	BlockNumber first;
	BlockNumber last;
	OffsetNumber offset;
} WeirPlace;

#define WEIR_MAX_PLACES 4

/*
 * One committed transaction of one stream, as a worker consumes it.
 */
typedef struct WeirTxn
{
	WeirNumber number;
	FullTransactionId xid; /* top transaction; also stamped on chunks */
	TimestampTz arrival;   /* never falls in a life of the server */
	TimestampTz watermark; /* what this record raises W to; or
								 * WEIR_NO_TIME.  Fixed when written, so that
								 * replay never needs a clock or an option */
	uint32 kind;		   /* WeirRecordKind */
	uint32 nchunks;		   /* visible chunks, the record included */
	uint64 nrows;
	uint64 nbytes;
	int nplaces; /* 0: unknown, scan the log */
	WeirPlace places[WEIR_MAX_PLACES];
} WeirTxn;

/*
 * The watermark of a stream, and the record that raised it there.
 */
typedef struct WeirWatermark
{
	TimestampTz watermark; /* or WEIR_NO_TIME: the rest means nothing */
	TimestampTz arrival;
	uint32 kind; /* WeirRecordKind */
} WeirWatermark;

/* The pane of an unwindowed view, and that of one whose windows are kept with
 * their keys (spans.h): after every end of a window. */
#define WEIR_PANE_NONE	PG_INT64_MIN
#define WEIR_PANE_SPANS (PG_INT64_MAX - 1)

#endif /* PG_WEIR_H */
