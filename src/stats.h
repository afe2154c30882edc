/*-------------------------------------------------------------------------
 *
 * stats.h
 *	  SQL functions of section 4 of the design that read or wait: wait_for,
 *	  watermark, is_final, checkpoint, explain, and the functions behind the
 *	  views weir.streams, weir.views, weir.workers, weir.errors.
 *
 *-------------------------------------------------------------------------
 */
#ifndef WEIR_STATS_H
#define WEIR_STATS_H

#include "pg_weir.h"

/*
 * Sleep until cond(arg) or timeout; checks interrupts, and raises 40P01 when
 * the process waited for (pid) is blocked by this backend's locks
 * (pg_blocking_pids), each deadlock_timeout.  True: cond holds.
 */
extern bool weir_stats_wait(bool (*cond)(void *arg), void *arg,
							int64 timeout_us, int (*waits_for)(void *arg));

#endif /* WEIR_STATS_H */
