/*-------------------------------------------------------------------------
 *
 * batch.h
 *	  Some transactions of a stream on their way through the views that stand
 *	  at the same position.
 *
 *-------------------------------------------------------------------------
 */
#ifndef WEIR_BATCH_H
#define WEIR_BATCH_H

#include "pg_weir.h"

#include "flow.h"
#include "log_reader.h"
#include "nodes/pg_list.h"

/* An event that on_error = skip leaves out. */
typedef struct WeirSkippedRow
{
	FullTransactionId xid; /* of the transaction */
	int chunk;			   /* in the transaction's order */
	int row;
	char *json; /* or NULL; this and the following palloc'd */
	char *sqlstate;
	char *message;
} WeirSkippedRow;

/*
 * An error that user code has raised itself and called transient, of one event:
 * how often in succession.
 */
typedef struct WeirBatchClaim
{
	FullTransactionId xid; /* of the transaction */
	int chunk;			   /* in the transaction's order; -1: of no event */
	int row;
	int sqlstate; /* as in ErrorData */
	int tries;
} WeirBatchClaim;

#define WEIR_CLAIM_TRIES 8

typedef enum WeirBatchVerdict
{
	WEIR_BATCH_OK,
	WEIR_BATCH_LATER,	 /* a lock, memory, a cancel: nobody's fault */
	WEIR_BATCH_AGAIN,	 /* at once, alone, from the same position */
	WEIR_BATCH_FULL,	 /* the same once a checkpoint has made room */
	WEIR_BATCH_IN_PARTS, /* weir_batch_run_in_parts is to do it */
	WEIR_BATCH_LOST,	 /* of that: another owner */
	WEIR_BATCH_FAILED	 /* the view stops here */
} WeirBatchVerdict;

/* A view that goes through batches; zeroed before the first. */
typedef struct WeirBatchMember
{
	WeirFlow *flow;
	WeirNumber careful; /* up to here one transaction at a time, row by row */
	uint64 max_rows;	/* of a batch, as memory is short; 0: the usual */
	bool closed;		/* what is final, to make room for the next batch */
	uint64 part_rows;	/* not 0: the next transaction goes in such parts */
	WeirSkippedRow *skips; /* of the transaction at hand */
	int nskips;
	WeirBatchClaim claim; /* the latest */

	/* set by a batch */
	WeirBatchVerdict verdict;
	ErrorData *error; /* unless OK; good until the transaction ends */
} WeirBatchMember;

/* Where the members with verdict OK stand now. */
typedef struct WeirBatchResult
{
	WeirPosition position;
	TimestampTz watermark;
	uint64 nrows;
	uint64 nbytes; /* of log */
	bool at_head;  /* the last transaction came by the ring */
} WeirBatchResult;

/*
 * Take the reader's next transactions with number <= limit and bring them
 * through the members.  watermark: W before them; by_arrival: it is that of
 * views with windows over now().  False: there are none.
 * Raises what is not a member's: then some members may have published, and the
 * reader has given what nobody has consumed.
 */
extern bool weir_batch_run(Relation rel, WeirLogReader *reader,
						   WeirNumber limit, TimestampTz watermark,
						   bool by_arrival, List *members,
						   WeirBatchResult *result);

/*
 * Bring the next transaction (the next ones, if they share a number) through one
 * view in parts and checkpoint it; see batch.c.  Outside of any transaction; the
 * flow is as its last checkpoint.  False: there is none.  verdict OK: it is
 * through; else the flow can only be closed, and what opens it again starts
 * before the transaction.  error is palloc'd in the current context; of a view
 * that has FAILED by an event, that is the last of skips.
 */
extern bool weir_batch_run_in_parts(Oid stream, WeirLogReader *reader,
									TimestampTz watermark, WeirBatchMember *m,
									WeirBatchResult *result);

/* Lock and open a stream; raises if that would have to wait. */
extern Relation weir_batch_open_stream(Oid stream);

extern void weir_batch_forget_skips(WeirBatchMember *m);

/*
 * Does the error say nothing about the events: is the same batch likely to go
 * through another time?
 */
extern bool weir_batch_is_transient(const ErrorData *e);

/*
 * Is that only what user code says, by a RAISE of its own?  Believed
 * WEIR_CLAIM_TRIES times.  Never so for want of memory or disk (53), a cancel
 * (57), a lock: what passes them on in its own words must not make an event
 * answer for them.
 */
extern bool weir_batch_is_claim(const ErrorData *e);

#endif /* WEIR_BATCH_H */
