/*-------------------------------------------------------------------------
 *
 * window.c
 *	  Event time: windows, lateness, watermark; and the scalars behind the
 *	  SQL window functions.
 *
 * Everything is arithmetic on int64 microseconds, without clock, catalog or
 * memory.  A window is [start, end); timestamptz and timestamp (taken as UTC)
 * are the same numbers.  A window of fixed size is a bin of the time line
 * counted from an origin, so that '1 day' is 24 hours in every TimeZone; a
 * calendar window (date_trunc) ends where the next unit begins in its zone.
 *
 * A window that would begin or end outside the range of timestamps is an
 * error (22008), never a wrapped number: then `end' of every window is finite
 * and smaller than PG_INT64_MAX - 2, and comparing ends needs no care.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "common/int.h"
#include "fmgr.h"
#include "pgtime.h"
#include "utils/builtins.h"
#include "utils/datetime.h"
#include "utils/timestamp.h"

#include "window.h"

static void
time_out_of_range(void)
{
	ereport(
		ERROR,
		(errcode(ERRCODE_DATETIME_VALUE_OUT_OF_RANGE),
		 errmsg("timestamp out of range for a window"),
		 errdetail(
			 "The window would begin or end outside the range of timestamps.")));
}

/* x modulo m, in [0, m). */
static inline int64
floor_mod(int64 x, int64 m)
{
	int64 r = x % m;

	return r < 0 ? r + m : r;
}

int64
weir_window_bin_start(int64 ts, int64 size, int64 origin)
{
	int64 distance;
	int64 into;
	int64 start;

	Assert(size > 0);
	if (likely(!pg_sub_s64_overflow(ts, origin, &distance)))
		into = floor_mod(distance, size);
	else
		into = floor_mod(floor_mod(ts, size) - floor_mod(origin, size), size);

	if (unlikely(pg_sub_s64_overflow(ts, into, &start)) ||
		unlikely(!IS_VALID_TIMESTAMP(start)))
		time_out_of_range();
	return start;
}

int64
weir_window_fixed_length(const Interval *iv, const char *what)
{
	int64 days;
	int64 length;

	if (iv->month != 0)
		ereport(
			ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("window %s must be of fixed length", what),
			 errdetail("Months and years differ in length."),
			 errhint("Use date_trunc() in GROUP BY for calendar windows.")));
	if (pg_mul_s64_overflow(iv->day, USECS_PER_DAY, &days) ||
		pg_add_s64_overflow(days, iv->time, &length))
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("window %s is too large", what)));
	if (length <= 0)
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("window %s must be greater than zero", what),
						errhint("Use an interval such as '1 minute'.")));
	return length;
}

/*
 * Where the calendar unit that begins at start ends.  The start of a day that
 * has no midnight is not midnight, so the time of day is cleared before the
 * unit is added.
 */
static int64
trunc_end(const WeirWindow *w, int64 start)
{
	struct pg_tm tm;
	fsec_t fsec;
	int tz = 0;
	pg_tz *zone = w->zone != NULL ? w->zone : session_timezone;
	int month;
	Timestamp end;

	if (w->unit.month == 0 && w->unit.day == 0)
	{
		if (pg_add_s64_overflow(start, w->unit.time, &end))
			time_out_of_range();
		return end;
	}

	if (timestamp2tm(start, w->is_timestamptz ? &tz : NULL, &tm, &fsec, NULL,
					 w->is_timestamptz ? zone : NULL) != 0)
		time_out_of_range();
	tm.tm_hour = tm.tm_min = tm.tm_sec = 0;

	if (w->unit.month != 0)
	{
		month = tm.tm_mon - 1 + w->unit.month;
		tm.tm_year += month / MONTHS_PER_YEAR;
		tm.tm_mon = month % MONTHS_PER_YEAR + 1;
	}
	if (w->unit.day != 0)
		j2date(date2j(tm.tm_year, tm.tm_mon, tm.tm_mday) + w->unit.day,
			   &tm.tm_year, &tm.tm_mon, &tm.tm_mday);

	if (w->is_timestamptz)
		tz = DetermineTimeZoneOffset(&tm, zone);
	if (tm2timestamp(&tm, 0, w->is_timestamptz ? &tz : NULL, &end) != 0)
		time_out_of_range();
	return end;
}

/* date_trunc() as the view's query calls it. */
static int64
trunc_start(const WeirWindow *w, int64 time)
{
	static const struct
	{
		Interval length;
		const char *name;
	} units[] = {{{.month = 1000 * MONTHS_PER_YEAR}, "millennium"},
				 {{.month = 100 * MONTHS_PER_YEAR}, "century"},
				 {{.month = 10 * MONTHS_PER_YEAR}, "decade"},
				 {{.month = MONTHS_PER_YEAR}, "year"},
				 {{.month = 3}, "quarter"},
				 {{.month = 1}, "month"},
				 {{.day = 7}, "week"},
				 {{.day = 1}, "day"},
				 {{.time = USECS_PER_HOUR}, "hour"},
				 {{.time = USECS_PER_MINUTE}, "minute"},
				 {{.time = USECS_PER_SEC}, "second"},
				 {{.time = 1000}, "milliseconds"},
				 {{.time = 1}, "microseconds"}};
	const char *name = NULL;
	Datum unit;

	for (int i = 0; i < lengthof(units); i++)
		if (units[i].length.month == w->unit.month &&
			units[i].length.day == w->unit.day &&
			units[i].length.time == w->unit.time)
			name = units[i].name;
	if (name == NULL)
		elog(ERROR, "unexpected unit of a calendar window");
	unit = PointerGetDatum(cstring_to_text(name));
	if (!w->is_timestamptz)
		return DatumGetTimestamp(DirectFunctionCall2(timestamp_trunc, unit,
													 TimestampGetDatum(time)));
	/* as a name given to it CET is an abbreviation, without summer time */
	if (w->zone == NULL || w->zone == session_timezone)
		return DatumGetTimestampTz(DirectFunctionCall2(
			timestamptz_trunc, unit, TimestampTzGetDatum(time)));
	return DatumGetTimestampTz(DirectFunctionCall3(
		timestamptz_trunc_zone, unit, TimestampTzGetDatum(time),
		PointerGetDatum(cstring_to_text(pg_get_timezone_name(w->zone)))));
}

/* A clock that is put back across midnight has been in the next day before. */
static bool
clock_was_put_back(const WeirWindow *w, int64 time)
{
	pg_tz *zone = w->zone != NULL ? w->zone : session_timezone;
	struct pg_tm tm;
	fsec_t fsec;
	int tz;
	int tz_before;

	if (!w->is_timestamptz || (w->unit.month == 0 && w->unit.day == 0))
		return false;
	if (timestamp2tm(time, &tz, &tm, &fsec, NULL, zone) != 0 ||
		timestamp2tm(time - 3 * USECS_PER_HOUR, &tz_before, &tm, &fsec, NULL,
					 zone) != 0)
		time_out_of_range();
	return tz > tz_before;
}

int64
weir_window_through(const WeirWindow *w, int64 time)
{
	WeirWindow by_start = *w;
	int64 start;
	int64 end;

	Assert(w->kind != WEIR_WINDOW_NONE && !weir_window_is_span(w));
	by_start.key_is_end = false;
	if (w->kind == WEIR_WINDOW_TRUNC)
		start = trunc_start(w, time);
	else
		start = weir_window_bin_start(
			time, w->kind == WEIR_WINDOW_HOP ? w->slide : w->size, w->origin);
	end = weir_window_end(&by_start, start);
	if (w->kind == WEIR_WINDOW_TRUNC && clock_was_put_back(w, time))
		end = weir_window_end(&by_start, end);
	return end;
}

int64
weir_window_end(const WeirWindow *w, int64 key)
{
	int64 end = key;

	if (TIMESTAMP_NOT_FINITE(key))
		time_out_of_range();
	if (!w->key_is_end)
	{
		if (w->kind == WEIR_WINDOW_TRUNC)
			end = trunc_end(w, key);
		else if (pg_add_s64_overflow(key, w->size, &end))
			time_out_of_range();
	}
	if (!IS_VALID_TIMESTAMP(end))
		time_out_of_range();
	return end;
}

int64
weir_window_start(const WeirWindow *w, int64 end)
{
	int64 start;

	if (w->kind == WEIR_WINDOW_CUMULATE)
		return weir_window_bin_start(end - 1, w->size, w->origin);
	if (pg_sub_s64_overflow(end, w->size, &start) || !IS_VALID_TIMESTAMP(start))
		time_out_of_range();
	return start;
}

int64
weir_window_last(const WeirWindow *w, int64 end)
{
	int64 last;

	Assert(weir_window_overlaps(w));
	if (w->kind == WEIR_WINDOW_CUMULATE)
		last = weir_window_start(w, end) + w->size;
	else if (pg_add_s64_overflow(end, w->size - w->slide, &last))
		time_out_of_range();
	if (!IS_VALID_TIMESTAMP(last))
		time_out_of_range();
	return last;
}

int64
weir_window_earliest(const WeirWindow *w, int64 pane)
{
	Assert(weir_window_overlaps(w));
	return pane - (w->size - w->slide);
}

int64
weir_window_next_end(const WeirWindow *w, int64 end, int64 after)
{
	uint64 slide = w->slide;

	/* unsigned: "after" may be as far away as can be */
	if (end > after)
		return end -
			   (int64) (((uint64) end - (uint64) after - 1) / slide * slide);
	return end +
		   (int64) ((((uint64) after - (uint64) end) / slide + 1) * slide);
}

bool
weir_window_is_complete(int64 end, TimestampTz watermark)
{
	return end != WEIR_PANE_NONE && watermark != WEIR_NO_TIME &&
		   watermark >= end;
}

/*
 * The end of the stream, watermark infinity, makes every window final, except
 * that with allowed_lateness = infinity no window ever is.
 */
bool
weir_window_is_final(int64 end, int64 allowed_lateness, TimestampTz watermark)
{
	return end != WEIR_PANE_NONE &&
		   end <= weir_window_final_before(allowed_lateness, watermark);
}

/*
 * Infinity is answered by PG_INT64_MAX - 2: beyond every end, and before
 * WEIR_PANE_SPANS and the PG_INT64_MAX by which state.c says that there is no
 * pane.
 */
int64
weir_window_final_before(int64 allowed_lateness, TimestampTz watermark)
{
	int64 before;

	Assert(allowed_lateness >= 0);
	if (watermark == WEIR_NO_TIME || allowed_lateness == PG_INT64_MAX)
		return PG_INT64_MIN;
	if (watermark == DT_NOEND)
		return PG_INT64_MAX - 2;
	if (pg_sub_s64_overflow(watermark, allowed_lateness, &before))
		return PG_INT64_MIN;
	return before;
}

int64
weir_window_final_through(const WeirWindow *w, int64 allowed_lateness,
						  TimestampTz watermark)
{
	int64 before = weir_window_final_before(allowed_lateness, watermark);

	if (w->kind == WEIR_WINDOW_SESSION && before != PG_INT64_MIN)
		before--;
	return before;
}

/*
 * A result below the range of timestamps could not be shown to anybody: the
 * earliest time there is says the same, and that there has been an event.
 */
TimestampTz
weir_watermark_of(TimestampTz max_event, TimestampTz arrival, int64 delay,
				  bool clamp)
{
	int64 watermark;

	if (max_event == WEIR_NO_TIME)
		return WEIR_NO_TIME;
	if (clamp && max_event > arrival)
		max_event = arrival;
	if (pg_sub_s64_overflow(max_event, delay, &watermark) ||
		watermark < MIN_TIMESTAMP)
		return MIN_TIMESTAMP;
	return watermark;
}

TimestampTz
weir_window_arrival(TimestampTz before, TimestampTz arrival)
{
	return TIMESTAMP_IS_NOEND(before) ? arrival : Max(before, arrival);
}

TimestampTz
weir_window_arrived(TimestampTz before, TimestampTz arrival, TimestampTz raised)
{
	return TIMESTAMP_IS_NOEND(raised) ? raised : Max(before, arrival);
}

/* ---- SQL: weir.tumble_start, weir.tumble_end, tumble(date) ---- */

PG_FUNCTION_INFO_V1(weir_tumble_start);
PG_FUNCTION_INFO_V1(weir_tumble_end);
PG_FUNCTION_INFO_V1(weir_tumble_date);

/*
 * Arguments (ts, size, origin), of timestamptz or of timestamp.
 */
static int64
tumble_start(FunctionCallInfo fcinfo, int64 *size)
{
	int64 ts = PG_GETARG_TIMESTAMPTZ(0);
	int64 origin = PG_GETARG_TIMESTAMPTZ(2);

	*size = weir_window_fixed_length(PG_GETARG_INTERVAL_P(1), "size");
	if (unlikely(TIMESTAMP_NOT_FINITE(ts)))
		ereport(ERROR, (errcode(ERRCODE_DATETIME_VALUE_OUT_OF_RANGE),
						errmsg("infinite timestamp is in no window")));
	if (unlikely(TIMESTAMP_NOT_FINITE(origin)))
		ereport(ERROR, (errcode(ERRCODE_DATETIME_VALUE_OUT_OF_RANGE),
						errmsg("window origin must be finite"),
						errhint("Use a time at which a window shall start.")));
	return weir_window_bin_start(ts, *size, origin);
}

Datum
weir_tumble_start(PG_FUNCTION_ARGS)
{
	int64 size;

	PG_RETURN_TIMESTAMPTZ(tumble_start(fcinfo, &size));
}

Datum
weir_tumble_end(PG_FUNCTION_ARGS)
{
	int64 size;
	int64 start = tumble_start(fcinfo, &size);
	int64 end;

	if (pg_add_s64_overflow(start, size, &end) || !IS_VALID_TIMESTAMP(end))
		time_out_of_range();
	PG_RETURN_TIMESTAMPTZ(end);
}

/* ---- SQL: hop and cumulate ---- */

PG_FUNCTION_INFO_V1(weir_window_count);
PG_FUNCTION_INFO_V1(weir_hop_start);
PG_FUNCTION_INFO_V1(weir_hop_end);
PG_FUNCTION_INFO_V1(weir_cumulate_start);
PG_FUNCTION_INFO_V1(weir_cumulate_end);
PG_FUNCTION_INFO_V1(weir_cumulate_step);

int
weir_window_parts(const Interval *slide, const Interval *size, bool cumulate,
				  int64 *slide_us, int64 *size_us)
{
	const char *what = cumulate ? "step" : "slide";

	*slide_us = weir_window_fixed_length(slide, what);
	*size_us = weir_window_fixed_length(size, "size");
	if (*slide_us > *size_us || *size_us % *slide_us != 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("window size must be a multiple of the %s", what),
				 errhint("The %s comes first: %s(ts, %s, size).", what,
						 cumulate ? "cumulate" : "hop", what)));
	if (*size_us / *slide_us > WEIR_MAX_WINDOWS)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("window size must not be more than %d times the %s",
						WEIR_MAX_WINDOWS, what)));
	return (int) (*size_us / *slide_us);
}

/* (slide, size, cumulate): in how many windows a time is, at most. */
Datum
weir_window_count(PG_FUNCTION_ARGS)
{
	int64 slide;
	int64 size;

	PG_RETURN_INT32(weir_window_parts(PG_GETARG_INTERVAL_P(0),
									  PG_GETARG_INTERVAL_P(1),
									  PG_GETARG_BOOL(2), &slide, &size));
}

/* Arguments (ts, slide, size, origin, n): what all of them ask. */
static int64
grid_arguments(FunctionCallInfo fcinfo, bool cumulate, int64 *slide,
			   int64 *size, int64 *origin)
{
	int64 ts = PG_GETARG_TIMESTAMPTZ(0);

	(void) weir_window_parts(PG_GETARG_INTERVAL_P(1), PG_GETARG_INTERVAL_P(2),
							 cumulate, slide, size);
	*origin = PG_GETARG_TIMESTAMPTZ(3);
	if (unlikely(TIMESTAMP_NOT_FINITE(ts)))
		ereport(ERROR, (errcode(ERRCODE_DATETIME_VALUE_OUT_OF_RANGE),
						errmsg("infinite timestamp is in no window")));
	if (unlikely(TIMESTAMP_NOT_FINITE(*origin)))
		ereport(ERROR, (errcode(ERRCODE_DATETIME_VALUE_OUT_OF_RANGE),
						errmsg("window origin must be finite"),
						errhint("Use a time at which a window shall start.")));
	return ts;
}

/* End of the n-th window that ts is in, from 0. */
static int64
hop_end(FunctionCallInfo fcinfo, int64 *size)
{
	int64 slide;
	int64 origin;
	int64 ts = grid_arguments(fcinfo, false, &slide, size, &origin);
	int32 n = PG_GETARG_INT32(4);
	int64 end;

	if (n < 0 || n >= *size / slide)
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("window number %d is out of range", n)));
	if (pg_add_s64_overflow(weir_window_bin_start(ts, slide, origin),
							slide * (n + 1), &end) ||
		!IS_VALID_TIMESTAMP(end))
		time_out_of_range();
	return end;
}

Datum
weir_hop_start(PG_FUNCTION_ARGS)
{
	int64 size;
	int64 end = hop_end(fcinfo, &size);
	int64 start;

	if (pg_sub_s64_overflow(end, size, &start) || !IS_VALID_TIMESTAMP(start))
		time_out_of_range();
	PG_RETURN_TIMESTAMPTZ(start);
}

Datum
weir_hop_end(PG_FUNCTION_ARGS)
{
	int64 size;

	PG_RETURN_TIMESTAMPTZ(hop_end(fcinfo, &size));
}

/* (ts, step, size, origin) */
Datum
weir_cumulate_start(PG_FUNCTION_ARGS)
{
	int64 step;
	int64 size;
	int64 origin;
	int64 ts = grid_arguments(fcinfo, true, &step, &size, &origin);

	PG_RETURN_TIMESTAMPTZ(weir_window_bin_start(ts, size, origin));
}

/* (ts, step, size, origin): the number of the first window that ts is in, of
 * those with its start, from 1. */
Datum
weir_cumulate_step(PG_FUNCTION_ARGS)
{
	int64 step;
	int64 size;
	int64 origin;
	int64 ts = grid_arguments(fcinfo, true, &step, &size, &origin);

	PG_RETURN_INT32(
		(int32) ((ts - weir_window_bin_start(ts, size, origin)) / step + 1));
}

/* (ts, step, size, origin, n): end of the n-th window with ts's start; n = 0,
 * of the first that ts is in. */
Datum
weir_cumulate_end(PG_FUNCTION_ARGS)
{
	int64 step;
	int64 size;
	int64 origin;
	int64 ts = grid_arguments(fcinfo, true, &step, &size, &origin);
	int32 n = PG_GETARG_INT32(4);
	int64 start = weir_window_bin_start(ts, size, origin);
	int64 end;

	if (n == 0)
		n = (ts - start) / step + 1;
	if (n < 0 || n > size / step)
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("window number %d is out of range", n)));
	if (pg_add_s64_overflow(start, step * n, &end) || !IS_VALID_TIMESTAMP(end))
		time_out_of_range();
	PG_RETURN_TIMESTAMPTZ(end);
}

/* ---- SQL: what a view runs instead of session() and count_window() ---- */

PG_FUNCTION_INFO_V1(weir_session_event_start);
PG_FUNCTION_INFO_V1(weir_session_event_end);
PG_FUNCTION_INFO_V1(weir_count_event);

/* (ts, gap): the session that an event would be by itself. */
static int64
session_event(FunctionCallInfo fcinfo, int64 *end)
{
	int64 ts = PG_GETARG_TIMESTAMPTZ(0);
	int64 gap = weir_window_fixed_length(PG_GETARG_INTERVAL_P(1), "gap");

	if (unlikely(TIMESTAMP_NOT_FINITE(ts)))
		ereport(ERROR, (errcode(ERRCODE_DATETIME_VALUE_OUT_OF_RANGE),
						errmsg("infinite timestamp is in no window")));
	if (pg_add_s64_overflow(ts, gap, end) || !IS_VALID_TIMESTAMP(*end))
		time_out_of_range();
	return ts;
}

Datum
weir_session_event_start(PG_FUNCTION_ARGS)
{
	int64 end;

	PG_RETURN_TIMESTAMPTZ(session_event(fcinfo, &end));
}

Datum
weir_session_event_end(PG_FUNCTION_ARGS)
{
	int64 end;

	(void) session_event(fcinfo, &end);
	PG_RETURN_TIMESTAMPTZ(end);
}

/* (size, slide): which rows the window holds is known to the view alone. */
Datum
weir_count_event(PG_FUNCTION_ARGS)
{
	PG_RETURN_INT64(0);
}

void
weir_window_refuse_date(void)
{
	ereport(ERROR, (errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					errmsg("window functions do not take a date"),
					errhint("Cast the date to timestamp or timestamptz.")));
}

/*
 * A date would be cast to timestamptz silently, and then fall into windows
 * that depend on the session's TimeZone.
 */
Datum
weir_tumble_date(PG_FUNCTION_ARGS)
{
	weir_window_refuse_date();
	PG_RETURN_NULL();
}
