/*-------------------------------------------------------------------------
 *
 * log_trim.h
 *	  Trimming the log of a stream: what may go, its deletion, and how much is
 *	  held back from going.
 *
 *-------------------------------------------------------------------------
 */
#ifndef WEIR_LOG_TRIM_H
#define WEIR_LOG_TRIM_H

#include "pg_weir.h"

#include "utils/rel.h"

/*
 * Delete whole transactions with number <= up_to and arrival < older_than
 * (own transaction: caller has started one and holds the stream's
 * RowExclusiveLock and weir_log_lock_history), oldest first, as long as at least
 * keep_bytes remain.  *trimmed, which the caller has cleared, is added to.
 */
typedef struct WeirTrimmed
{
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

#endif /* WEIR_LOG_TRIM_H */
