/*-------------------------------------------------------------------------
 *
 * timers.h
 *	  When is there something to do for which key?  Keys are told apart by their
 *	  hashes only; times are int64 of the caller's kind.  In private memory.
 *
 *-------------------------------------------------------------------------
 */
#ifndef WEIR_TIMERS_H
#define WEIR_TIMERS_H

#include "pg_weir.h"

typedef struct WeirTimers WeirTimers;

/* In a child of cxt, which it lives and dies with. */
extern WeirTimers *weir_timers_create(MemoryContext cxt);
/* A key is due then, or earlier if that was said before.  PG_INT64_MAX: never,
 * does nothing. */
extern void weir_timers_set(WeirTimers *t, uint32 hash, int64 due);
/* The smallest time that any key is due; PG_INT64_MAX: none is. */
extern int64 weir_timers_next(WeirTimers *t);
/* Take a key that is due up to that time, the earliest first; false: none is. */
extern bool weir_timers_take(WeirTimers *t, int64 through, uint32 *hash);

#endif /* WEIR_TIMERS_H */
