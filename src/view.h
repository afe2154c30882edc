/*-------------------------------------------------------------------------
 *
 * view.h
 *	  SELECT of a continuous view: Append(final rows in v's heap, live rows
 *	  from the state), one consistent cut per statement; planner hooks.
 *
 *-------------------------------------------------------------------------
 */
#ifndef WEIR_VIEW_H
#define WEIR_VIEW_H

#include "pg_weir.h"

/* From _PG_init: planner, path list and relation info hooks, CustomScan
 * methods, callbacks. */
extern void weir_view_init(void);

#endif /* WEIR_VIEW_H */
