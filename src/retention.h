/*-------------------------------------------------------------------------
 *
 * retention.h
 *	  What a stream's options retention and retention_size let go of, and what
 *	  becomes of views that keep it from going.
 *
 *-------------------------------------------------------------------------
 */
#ifndef WEIR_RETENTION_H
#define WEIR_RETENTION_H

#include "pg_weir.h"

/*
 * Trim a stream, in a transaction of its own.  Raises.  Nothing is done if
 * somebody else is at it (true), or something is locked.
 */
extern bool weir_retention_trim(Oid stream);

/*
 * Summarize runs of its log (log_summary.h), in a transaction of its own.
 * Raises.  Nothing is done if something is locked.  True if there is more to do.
 */
extern bool weir_retention_summarize(Oid stream, int max_ms);

#endif /* WEIR_RETENTION_H */
