/*-------------------------------------------------------------------------
 *
 * window_query.h
 *	  session() and count_window() in ordinary queries.
 *
 *-------------------------------------------------------------------------
 */
#ifndef WEIR_WINDOW_QUERY_H
#define WEIR_WINDOW_QUERY_H

#include "pg_weir.h"

/* From _PG_init: the planner hook. */
extern void weir_window_query_init(void);

#endif /* WEIR_WINDOW_QUERY_H */
