/*-------------------------------------------------------------------------
 *
 * crash.h
 *	  A trace, kept over crashes, of workers that crash the server soon after
 *	  their start.
 *
 *-------------------------------------------------------------------------
 */
#ifndef WEIR_CRASH_H
#define WEIR_CRASH_H

#include "pg_weir.h"

/* How many times in succession such a worker has crashed the server. */
extern int weir_crash_count(Oid db, int index);

/* The launcher is about to start it; count: what it has been so far. */
extern void weir_crash_begin(Oid db, int index, int count);

/* The worker: it is I.  Sets the handler of SIGQUIT. */
extern void weir_crash_watch(Oid db, int index);

/* The worker has got through what may have crashed before, or ends in order. */
extern void weir_crash_end(void);

/* Of workers that are not to start again. */
extern void weir_crash_forget(Oid db, int index);

#endif /* WEIR_CRASH_H */
