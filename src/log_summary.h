/*-------------------------------------------------------------------------
 *
 * log_summary.h
 *	  Making summaries of runs of a stream's log (runs.h).
 *
 *-------------------------------------------------------------------------
 */
#ifndef WEIR_LOG_SUMMARY_H
#define WEIR_LOG_SUMMARY_H

#include "pg_weir.h"

#include "utils/rel.h"

/*
 * Summarize runs that want it, for about max_ms (0: all of them); how many, and
 * whether there are more.  The caller holds ShareUpdateExclusiveLock on the
 * stream, and has a transaction that may write.
 */
extern int weir_log_summarize(Relation rel, int max_ms, bool *more);

#endif /* WEIR_LOG_SUMMARY_H */
