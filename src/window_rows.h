/*-------------------------------------------------------------------------
 *
 * window_rows.h
 *	  Windows that depend on other rows: the checks of their arguments.
 *
 *-------------------------------------------------------------------------
 */
#ifndef WEIR_WINDOW_ROWS_H
#define WEIR_WINDOW_ROWS_H

#include "pg_weir.h"

#include "utils/timestamp.h"

/* The gap of session() in microseconds; ereports 22023 with hint. */
extern int64 weir_session_gap(const Interval *gap);

/* Ereports 22023 with hint unless 1 <= slide <= size. */
extern void weir_count_window_check(int64 size, int64 slide);

#endif /* WEIR_WINDOW_ROWS_H */
