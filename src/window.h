/*-------------------------------------------------------------------------
 *
 * window.h
 *	  Event time: windows, lateness, watermark.  Pure functions: no server
 *	  I/O, no clock, no catalog.  (window.c also holds the SQL-callable
 *	  scalars behind the window functions.)
 *
 * A window view keeps its groups by pane; in this release a pane is one
 * window and is named by the window's end (int64 microseconds, timestamptz or
 * timestamp taken as UTC alike).
 *
 *-------------------------------------------------------------------------
 */
#ifndef WEIR_WINDOW_H
#define WEIR_WINDOW_H

#include "pg_weir.h"

#include "utils/timestamp.h"

typedef enum WeirWindowKind
{
	WEIR_WINDOW_NONE,
	WEIR_WINDOW_BIN,  /* tumble() and date_bin(): fixed size */
	WEIR_WINDOW_TRUNC /* date_trunc(): calendar unit in a zone */
} WeirWindowKind;

/*
 * How to find the end of the window from the value of the window key.
 */
typedef struct WeirWindow
{
	WeirWindowKind kind;
	bool key_is_end;	 /* key value is window_end, else the start */
	bool is_timestamptz; /* else timestamp */
	int64 size;			 /* WEIR_WINDOW_BIN: microseconds > 0 */
	Interval unit;		 /* WEIR_WINDOW_TRUNC: one unit */
	pg_tz *zone;		 /* WEIR_WINDOW_TRUNC; NULL: session TimeZone */
} WeirWindow;

/* Start of the bin of ts: floor to origin + k*size; ereports 22008 on overflow. */
extern int64 weir_window_bin_start(int64 ts, int64 size, int64 origin);

/* Interval of fixed length to microseconds; ereports 22023 for months, <= 0,
 * with the hint to use date_trunc.  what: "size", "slide", for the message. */
extern int64 weir_window_fixed_length(const Interval *iv, const char *what);

/* End of the window whose key has this value. */
extern int64 weir_window_end(const WeirWindow *w, int64 key);

/* W >= e: every event of [s,e) is expected to have come. */
extern bool weir_window_is_complete(int64 end, TimestampTz watermark);

/*
 * W >= e + allowed_lateness: no event can enter any more; the rule by which a
 * row is late and by which a pane is moved to the heap.  allowed_lateness in
 * microseconds, PG_INT64_MAX = infinity (never final).  Overflow-safe.
 */
extern bool weir_window_is_final(int64 end, int64 allowed_lateness,
								 TimestampTz watermark);

/* The largest end that is final at this watermark; PG_INT64_MIN if none. */
extern int64 weir_window_final_before(int64 allowed_lateness,
									  TimestampTz watermark);

/*
 * What a transaction raises W to: min(max_event, arrival) - delay, or
 * max_event - delay when clamp is false; WEIR_NO_TIME if it has no event.
 */
extern TimestampTz weir_watermark_of(TimestampTz max_event, TimestampTz arrival,
									 int64 delay, bool clamp);

#endif /* WEIR_WINDOW_H */
