/*-------------------------------------------------------------------------
 *
 * debug.h
 *	  Ensure(), debug points, and the one function that reads the clock.
 *
 * Debug points exist only in a DEBUG=1 build.  The superuser setting
 * weir.debug_points holds a list "name=action[@N], ...": at the N-th hit
 * (default every hit) of the point in a process the action happens: error,
 * cancel (an error that passes, like that of a cancelled statement), memory (the
 * error of a process that gets no more of it), fatal,
 * kill (SIGKILL to self), sleep (200 ms, deaf to interrupts), wait (block on the
 * advisory lock (1465207378, hashtext(name)) in share mode, so a test that holds
 * that lock in exclusive mode stops the process there; interrupts are served).
 * The log tells of all but wait.
 * A point may stand only where raising is allowed, unless it is named
 * weir_debug_point_critical(), which honours only "kill" and "sleep", and "fatal"
 * for whoever wants to see what a successor makes of it.
 * The setting weir.debug_clock is for a clock that was put forward or back.
 *
 *-------------------------------------------------------------------------
 */
#ifndef WEIR_DEBUG_H
#define WEIR_DEBUG_H

#include "pg_weir.h"

#include "utils/timestamp.h"

#include "guc.h"

/*
 * Data read from disk or shared memory must be so; unlike Assert this is
 * checked in every build, because such data is never to be trusted.
 */
#define Ensure(cond, ...)                                                 \
	do                                                                    \
	{                                                                     \
		if (unlikely(!(cond)))                                            \
			ereport(ERROR,                                                \
					(errcode(ERRCODE_DATA_CORRUPTED),                     \
					 errmsg_internal(__VA_ARGS__),                        \
					 errdetail_internal("Check \"%s\" failed.", #cond))); \
	} while (0)

#ifdef WEIR_DEBUG
extern void weir_debug_point(const char *name);
extern void weir_debug_point_critical(const char *name);
#else
#define weir_debug_point(name)			((void) 0)
#define weir_debug_point_critical(name) ((void) 0)
#endif

/* The only reader of the clock in the tree. */
static inline TimestampTz
weir_now(void)
{
#ifdef WEIR_DEBUG
	return GetCurrentTimestamp() + weir_debug_clock * USECS_PER_SEC;
#else
	return GetCurrentTimestamp();
#endif
}

#endif /* WEIR_DEBUG_H */
