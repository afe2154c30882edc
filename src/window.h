/*-------------------------------------------------------------------------
 *
 * window.h
 *	  Event time: windows, lateness, watermark.  Pure functions: no server
 *	  I/O, no clock, no catalog.  (window.c also holds the SQL-callable
 *	  scalars behind the window functions.)
 *
 * A window view keeps its groups by pane, named by an end of a window (int64
 * microseconds, timestamptz or timestamp taken as UTC alike).  Of tumble and
 * the calendar a pane is one window.  Of hop and cumulate, whose windows
 * overlap, it holds the groups that count last in the window of that end; each
 * group's key says the first window it counts in, and the windows between
 * follow from the grid: a row is kept once, however many windows it is in.
 * Sessions and count windows are no panes: see spans.h.
 *
 *-------------------------------------------------------------------------
 */
#ifndef WEIR_WINDOW_H
#define WEIR_WINDOW_H

#include "pg_weir.h"

#include "utils/timestamp.h"

/* In how many windows one row may be. */
#define WEIR_MAX_WINDOWS 1000000

/* The numbers are in layouts, on disk and in dumps: they stay. */
typedef enum WeirWindowKind
{
	WEIR_WINDOW_NONE,
	WEIR_WINDOW_BIN,	  /* tumble() and date_bin(): fixed size */
	WEIR_WINDOW_TRUNC,	  /* date_trunc(): calendar unit in a zone */
	WEIR_WINDOW_HOP,	  /* hop(): fixed size, one begins every slide */
	WEIR_WINDOW_CUMULATE, /* cumulate(): one start, ends every slide */
	WEIR_WINDOW_SESSION,  /* session(): as long as no gap is larger */
	WEIR_WINDOW_COUNT	  /* count_window(): by the number of the row */
} WeirWindowKind;

/*
 * How to find the end of the window from the value of the window key.
 */
typedef struct WeirWindow
{
	WeirWindowKind kind;
	bool key_is_end;	 /* key value is window_end, else the start */
	bool is_timestamptz; /* else timestamp */
	int64 size;			 /* BIN, HOP, CUMULATE: microseconds > 0; SESSION:
						  * the gap; COUNT: rows */
	int64 slide;		 /* HOP; CUMULATE: the step; COUNT: rows */
	int64 origin;		 /* BIN, HOP, CUMULATE */
	Interval unit;		 /* WEIR_WINDOW_TRUNC: one unit */
	pg_tz *zone;		 /* WEIR_WINDOW_TRUNC; NULL: session TimeZone */
	bool by_arrival;	 /* over now(): processing time */
} WeirWindow;

/* Start of the bin of ts: floor to origin + k*size; ereports 22008 on overflow. */
extern int64 weir_window_bin_start(int64 ts, int64 size, int64 origin);

/* Interval of fixed length to microseconds; ereports 22023 for months, <= 0,
 * with the hint to use date_trunc.  what: "size", "slide", for the message. */
extern int64 weir_window_fixed_length(const Interval *iv, const char *what);

/*
 * In how many windows of hop (of cumulate) a time is at most, and the lengths
 * in microseconds; ereports 22023 unless size is a multiple of slide (step).
 */
extern int weir_window_parts(const Interval *slide, const Interval *size,
							 bool cumulate, int64 *slide_us, int64 *size_us);

/* End of the window whose key has this value; of several with that start, the
 * last one's; of an event's own session. */
extern int64 weir_window_end(const WeirWindow *w, int64 key);

/* Do windows of this kind overlap, so that a row may be in several panes' worth? */
static inline bool
weir_window_overlaps(const WeirWindow *w)
{
	return w->kind == WEIR_WINDOW_HOP || w->kind == WEIR_WINDOW_CUMULATE;
}

/* Are its windows kept with the key, not by pane? */
static inline bool
weir_window_is_span(const WeirWindow *w)
{
	return w->kind == WEIR_WINDOW_SESSION || w->kind == WEIR_WINDOW_COUNT;
}

/*
 * Of windows that overlap: the end of the last one that a row is in whose first
 * one ends at "end"; ereports 22008 when it is out of range.  And the start of
 * the window with that end.
 */
extern int64 weir_window_last(const WeirWindow *w, int64 end);
extern int64 weir_window_start(const WeirWindow *w, int64 end);
/* The earliest end not before a row's panes begin to count: of windows that
 * overlap the first that may hold a group of this pane. */
extern int64 weir_window_earliest(const WeirWindow *w, int64 pane);
/*
 * Windows with a greater end hold no time up to this one; not for spans.  Inside
 * weir_secure_enter, as the TimeZone counts.
 */
extern int64 weir_window_through(const WeirWindow *w, int64 time);
/* The smallest end after "after", on the grid that "end" lies on. */
extern int64 weir_window_next_end(const WeirWindow *w, int64 end, int64 after);

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
/* The same for a kind of windows: a session takes a row at its end, so W must
 * be beyond that. */
extern int64 weir_window_final_through(const WeirWindow *w,
									   int64 allowed_lateness,
									   TimestampTz watermark);

/*
 * What a transaction raises W to: min(max_event, arrival) - delay, or
 * max_event - delay when clamp is false; WEIR_NO_TIME if it has no event.
 */
extern TimestampTz weir_watermark_of(TimestampTz max_event, TimestampTz arrival,
									 int64 delay, bool clamp);

/*
 * Processing time.  W of a view whose windows are over now() is the latest
 * arrival along the log, so that the arrival of an event, which is its time, is
 * never before W, whatever the clock did between two starts of the server.
 * arrival: the time of the events of a transaction that W was "before" when it
 * came; watermark: what W is after it.  The end of the stream, raised =
 * infinity, is the end of this time too.
 */
extern TimestampTz weir_window_arrival(TimestampTz before, TimestampTz arrival);
extern TimestampTz weir_window_arrived(TimestampTz before, TimestampTz arrival,
									   TimestampTz raised);

/* Raises 0A000: no window function takes a date. */
extern void weir_window_refuse_date(void);

#endif /* WEIR_WINDOW_H */
