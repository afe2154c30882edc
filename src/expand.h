/*-------------------------------------------------------------------------
 *
 * expand.h
 *	  Groups as they are kept -> groups as they are shown, one for each window:
 *	  for views whose windows overlap, or are kept with their key (spans.h).
 *
 * Add all groups that may count in the windows asked for, then finish: it calls
 * back with each group of each window, a window of a key after another.
 *
 *-------------------------------------------------------------------------
 */
#ifndef WEIR_EXPAND_H
#define WEIR_EXPAND_H

#include "pg_weir.h"

#include "plan.h"
#include "state.h"

typedef struct WeirExpander WeirExpander;

/* Does this plan need it? */
extern bool weir_expand_needed(const WeirViewPlan *plan);

/* In the current context, inside weir_secure_enter(owner); free releases
 * everything. */
extern WeirExpander *weir_expand_create(const WeirViewPlan *plan);

/* g->hash must be the key's.  copy: its bytes do not stay until finish. */
extern void weir_expand_add(WeirExpander *x, const WeirGroup *g, bool copy);

/*
 * Windows with after < end <= through (spans: mark).  g->pane is the window's
 * end then, or mark.  The
 * bytes given are good during the call.
 */
extern void weir_expand_finish(WeirExpander *x, int64 after, int64 through,
							   WeirGroupCallback callback, void *arg);
extern void weir_expand_free(WeirExpander *x);

#endif /* WEIR_EXPAND_H */
