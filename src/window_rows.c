/*-------------------------------------------------------------------------
 *
 * window_rows.c
 *	  The functions behind session() and count_window() in ordinary queries.
 *
 * Which session or count window a row belongs to depends on other rows, so
 * session() and count_window() themselves can only refuse; window_query.c puts
 * in their place, over the rows of the query numbered or sorted by key,
 *
 *	weir.session_start(ts, gap) OVER (PARTITION BY key ORDER BY ts)
 *	weir.session_end(ts, gap) OVER (PARTITION BY key ORDER BY ts)
 *	weir.count_window_start(row, size)
 *	weir.count_window_end(row, rows, size)
 *	weir.count_windows(row, rows, size, slide)
 *
 * where row counts from 1 and rows is how many there are with this key.  Both
 * session functions go through a partition once, whatever its length: the end
 * is looked for at the first row of a session and kept for the others.
 *
 * A window that would end outside the range of timestamps is an error, as in
 * window.c.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "common/int.h"
#include "executor/executor.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/timestamp.h"
#include "utils/tuplestore.h"
#include "windowapi.h"

#include "window.h"
#include "window_rows.h"

PG_FUNCTION_INFO_V1(weir_session);
PG_FUNCTION_INFO_V1(weir_count_window);
PG_FUNCTION_INFO_V1(weir_session_start);
PG_FUNCTION_INFO_V1(weir_session_end);
PG_FUNCTION_INFO_V1(weir_count_window_start);
PG_FUNCTION_INFO_V1(weir_count_window_end);
PG_FUNCTION_INFO_V1(weir_count_windows);

/* The session that the row before was in. */
typedef struct SessionSoFar
{
	bool begun;
	int64 start;
	int64 end; /* of the rows so far */
} SessionSoFar;

/* A session whose end is known. */
typedef struct WholeSession
{
	bool known;
	int64 last; /* position of its last row in the partition */
	int64 end;
} WholeSession;


/* ---- session() and count_window(), not replaced ---- */

Datum
weir_session(PG_FUNCTION_ARGS)
{
	ereport(
		ERROR,
		(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
		 errmsg("session() cannot be called for a single row"),
		 errdetail("Which session a row is in depends on other rows."),
		 errhint(
			 "Use it in FROM of a query that groups by window_start or window_end. If that stands in an SQL function, declare the function VOLATILE.")));
	PG_RETURN_NULL();
}

Datum
weir_count_window(PG_FUNCTION_ARGS)
{
	ereport(
		ERROR,
		(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
		 errmsg("count_window() cannot be called for a single row"),
		 errdetail("Which windows a row is in depends on the rows before it."),
		 errhint(
			 "Use it in FROM of a query over a stream that groups by window_start or window_end. If that stands in an SQL function, declare the function VOLATILE.")));
	PG_RETURN_NULL();
}


/* ---- sessions ---- */

int64
weir_session_gap(const Interval *gap)
{
	if (gap->month != 0)
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("window gap must be of fixed length"),
						errdetail("Months and years differ in length."),
						errhint("Write the gap in days or smaller units.")));
	return weir_window_fixed_length(gap, "gap");
}

/* Where the session would end if this row were its last. */
static int64
row_end(int64 ts, int64 gap)
{
	int64 end;

	if (unlikely(TIMESTAMP_NOT_FINITE(ts)))
		ereport(ERROR, (errcode(ERRCODE_DATETIME_VALUE_OUT_OF_RANGE),
						errmsg("infinite timestamp is in no window")));
	if (unlikely(pg_add_s64_overflow(ts, gap, &end)) ||
		unlikely(!IS_VALID_TIMESTAMP(end)))
		ereport(
			ERROR,
			(errcode(ERRCODE_DATETIME_VALUE_OUT_OF_RANGE),
			 errmsg("timestamp out of range for a window"),
			 errdetail(
				 "The window would begin or end outside the range of timestamps.")));
	return end;
}

static int64
time_argument(Datum value, bool isnull)
{
	if (unlikely(isnull))
		ereport(ERROR,
				(errcode(ERRCODE_NOT_NULL_VIOLATION),
				 errmsg("null timestamp is in no window"),
				 errhint("Leave such rows out, with WHERE ... IS NOT NULL.")));
	return DatumGetTimestampTz(value);
}

/*
 * CREATE OPERATOR takes a window function too, and its operator would call it
 * without a window.
 */
static WindowObject
window_object(FunctionCallInfo fcinfo)
{
	WindowObject window = PG_WINDOW_OBJECT();

	if (!WindowObjectIsValid(window))
		ereport(ERROR, (errcode(ERRCODE_WINDOWING_ERROR),
						errmsg("window function called without a window"),
						errhint("Call it by its name, with OVER.")));
	return window;
}

/* Arguments (ts, gap) of the current row. */
static int64
current_row(WindowObject window, int64 *gap)
{
	bool isnull;
	Datum value = WinGetFuncArgCurrent(window, 1, &isnull);

	if (isnull)
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("window gap must not be null")));
	*gap = weir_session_gap(DatumGetIntervalP(value));
	value = WinGetFuncArgCurrent(window, 0, &isnull);
	return time_argument(value, isnull);
}

Datum
weir_session_start(PG_FUNCTION_ARGS)
{
	WindowObject window = window_object(fcinfo);
	SessionSoFar *session =
		WinGetPartitionLocalMemory(window, sizeof(SessionSoFar));
	int64 gap;
	int64 ts = current_row(window, &gap);
	int64 end = row_end(ts, gap);

	/* windows that touch are one */
	if (!session->begun || ts > session->end)
		session->start = ts;
	session->begun = true;
	session->end = end;
	WinSetMarkPosition(window, WinGetCurrentPosition(window));
	PG_RETURN_TIMESTAMPTZ(session->start);
}

Datum
weir_session_end(PG_FUNCTION_ARGS)
{
	WindowObject window = window_object(fcinfo);
	WholeSession *session =
		WinGetPartitionLocalMemory(window, sizeof(WholeSession));
	int64 here = WinGetCurrentPosition(window);

	if (!session->known || here > session->last)
	{
		int64 gap;
		int64 ts = current_row(window, &gap);

		session->end = row_end(ts, gap);
		session->last = here;
		for (int ahead = 1;; ahead++)
		{
			bool isnull;
			bool isout;
			Datum value = WinGetFuncArgInPartition(
				window, 0, ahead, WINDOW_SEEK_CURRENT, false, &isnull, &isout);

			if (isout)
				break;
			ts = time_argument(value, isnull);
			if (ts > session->end)
				break;
			session->end = row_end(ts, gap);
			session->last = here + ahead;
		}
		session->known = true;
	}
	WinSetMarkPosition(window, here);
	PG_RETURN_TIMESTAMPTZ(session->end);
}


/* ---- count windows ---- */

void
weir_count_window_check(int64 size, int64 slide)
{
	if (size < 1)
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("size of a count window must be at least 1"),
						errhint("The size is a number of rows.")));
	if (slide < 1)
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("slide of a count window must be at least 1"),
						errhint("The slide is a number of rows.")));
	if (slide > size)
		ereport(
			ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg(
				 "slide of a count window must not be greater than its size"),
			 errhint("The size comes first: count_window(size, slide).")));
	/* each row is in that many windows, as of hop() */
	if ((size - 1) / slide >= WEIR_MAX_WINDOWS)
		ereport(
			ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg(
				 "size of a count window must not be more than %d times its slide",
				 WEIR_MAX_WINDOWS)));
}

/* The argument that is a size; NULL is an error. */
static int64
size_argument(FunctionCallInfo fcinfo, int n)
{
	if (PG_ARGISNULL(n))
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("size of a count window must not be null")));
	return PG_GETARG_INT64(n);
}

/* count_window_start(row, size) */
Datum
weir_count_window_start(PG_FUNCTION_ARGS)
{
	int64 row = PG_GETARG_INT64(0) - 1;
	int64 size = size_argument(fcinfo, 1);

	weir_count_window_check(size, size);
	if (PG_ARGISNULL(0))
		PG_RETURN_NULL();
	PG_RETURN_INT64(row - row % size);
}

/* count_window_end(row, rows, size): NULL while the window is unfinished */
Datum
weir_count_window_end(PG_FUNCTION_ARGS)
{
	int64 row = PG_GETARG_INT64(0) - 1;
	int64 rows = PG_GETARG_INT64(1);
	int64 size = size_argument(fcinfo, 2);
	int64 end;

	weir_count_window_check(size, size);
	if (PG_ARGISNULL(0) || PG_ARGISNULL(1) ||
		pg_add_s64_overflow(row - row % size, size, &end) || end > rows)
		PG_RETURN_NULL();
	PG_RETURN_INT64(end);
}

/*
 * count_windows(row, rows, size, slide): the windows a row is in, with their
 * numbers, as windows may share a start and those that are unfinished an end.
 * rows is NULL where nobody asks for the end.
 */
Datum
weir_count_windows(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;
	int64 row = PG_GETARG_INT64(0) - 1;
	int64 size = size_argument(fcinfo, 2);
	int64 slide = PG_ARGISNULL(3) ? size : PG_GETARG_INT64(3);
	int64 number;
	MemoryContext old;

	weir_count_window_check(size, slide);
	if (result == NULL || !IsA(result, ReturnSetInfo) ||
		!(result->allowedModes & SFRM_Materialize) ||
		result->expectedDesc == NULL)
		ereport(
			ERROR,
			(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
			 errmsg(
				 "set-valued function called in context that cannot accept a set")));

	old = MemoryContextSwitchTo(result->econtext->ecxt_per_query_memory);
	result->returnMode = SFRM_Materialize;
	result->setResult = tuplestore_begin_heap(
		(result->allowedModes & SFRM_Materialize_Random) != 0, false, work_mem);
	MemoryContextSwitchTo(old);

	if (PG_ARGISNULL(0))
		return (Datum) 0;
	if (PG_GETARG_INT64(0) < 1)
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("rows are numbered from 1")));
	/* the window of this number is [number * slide - size, number * slide) */
	for (number = row / slide + 1;; number++)
	{
		Datum values[3];
		bool nulls[3] = {false, false, false};
		int64 end;
		int64 start;

		/* no row will ever have that number */
		if (pg_mul_s64_overflow(number, slide, &end))
			break;
		start = end - size;
		if (start > row)
			break;
		CHECK_FOR_INTERRUPTS();
		values[0] = Int64GetDatum(Max(start, 0));
		values[1] = Int64GetDatum(end);
		nulls[1] = PG_ARGISNULL(1) || end > PG_GETARG_INT64(1);
		values[2] = Int64GetDatum(number);
		tuplestore_putvalues(result->setResult, result->expectedDesc, values,
							 nulls);
	}
	return (Datum) 0;
}
