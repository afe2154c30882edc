/*-------------------------------------------------------------------------
 *
 * portal.h
 *	  The table access method "weir_portal": pg_dump reads the state of
 *	  continuous views through it, a restore writes it.
 *
 *-------------------------------------------------------------------------
 */
#ifndef WEIR_PORTAL_H
#define WEIR_PORTAL_H

#include "pg_weir.h"

#include "catalog.h"
#include "plan.h"

/* weir_portal_handler(internal) returns table_am_handler is the SQL function */

/*
 * In REFRESH of a view that was never started, its wish given, to be written by
 * the caller: has a restore brought state for it?  Then the view starts from
 * that, as soon as this transaction commits, with all events counted that its
 * stream holds then; *wish is what it shall be.  Raises if it cannot be taken.
 */
extern bool weir_portal_adopt(const WeirViewPlan *plan, WeirWish *wish);

/* Before commit or PREPARE; after the abort of a subtransaction; at the end of
 * the transaction: these do not raise. */
extern void weir_portal_pre_commit(bool prepare);
extern void weir_portal_at_subabort(void);
extern void weir_portal_at_end(void);

#endif /* WEIR_PORTAL_H */
