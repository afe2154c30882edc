/*-------------------------------------------------------------------------
 *
 * late.h
 *	  Late tables: where a view's option late_table keeps the events that
 *	  entered none of its windows.
 *
 *-------------------------------------------------------------------------
 */
#ifndef WEIR_LATE_H
#define WEIR_LATE_H

#include "pg_weir.h"

#include "access/tupdesc.h"
#include "catalog.h"
#include "plan.h"

/*
 * The slice that is being folded, as far as a late event is looked up in it.
 */
typedef struct WeirEventSource
{
	TupleDesc desc;		 /* of the stream */
	const int *at_chunk; /* the event that was scanned last */
	const int *at_row;
	char *const *images; /* per chunk of the slice */
	const Size *lengths;
	const TimestampTz *arrivals; /* of its transaction */
} WeirEventSource;

/* ---- in the worker, per flow ---- */

typedef struct WeirLate WeirLate;

extern WeirLate *weir_late_create(Oid view, MemoryContext parent);
extern void weir_late_free(WeirLate *late);
/* The option may have changed; with the view locked. */
extern void weir_late_plan(WeirLate *late, const WeirViewOptions *options);

/*
 * A batch: rewind, (slice, add*)*, publish.  What is added counts from publish
 * on, which does not raise; rewind forgets what was not published, and raises
 * (53400) when too much waits to be written.
 */
extern void weir_late_rewind(WeirLate *late);
extern void weir_late_check_space(const WeirLate *late);
extern void weir_late_slice(WeirLate *late, const WeirEventSource *source);
/* The event at hand is late; end: of the last window it missed; watermark: the
 * W that judged it. */
extern void weir_late_add(WeirLate *late, int64 end, TimestampTz watermark);
extern void weir_late_publish(WeirLate *late);
/* Is anybody interested in late events? */
extern bool weir_late_is_kept(const WeirLate *late);

/* Are there published events that no checkpoint has written?  So many that one
 * should come soon? */
extern bool weir_late_pending(const WeirLate *late);
extern bool weir_late_is_large(const WeirLate *late);

/*
 * In the checkpoint's transaction, row being the position row that was durable
 * before it: into the late table, or for a rebuild into weir.late_pending.
 * Once it has committed, written.
 */
extern void weir_late_write(WeirLate *late, const WeirViewPlan *plan,
							const WeirPositionRow *row);
extern void weir_late_written(WeirLate *late);

/* In the swap's transaction: a rebuild's events take the place of the view's,
 * but for those whose windows end at kept_through or before. */
extern void weir_late_swap(WeirLate *late, const WeirViewPlan *plan,
						   int64 generation, int64 kept_through);

/*
 * For a dump: what is published and not written, as texts: window end, W, time of
 * arrival, the stream's columns.  For a restore: such texts into the late table,
 * as the owner; give: the next one's into *texts, false: there is none.
 */
extern void weir_late_out(WeirLate *late, const WeirViewPlan *plan,
						  void (*callback)(WeirTexts *texts, void *arg),
						  void *arg);
extern void weir_late_in(Oid view, const WeirViewPlan *plan,
						 bool (*give)(WeirTexts *texts, void *arg), void *arg);

/* ---- statements ---- */

/*
 * Option late_table of the view, whose owner is the plan's, was set: find the
 * table or make it, and let the view depend on it.  NULL: it was reset.
 */
extern void weir_late_attach(Oid view, const WeirViewPlan *plan,
							 const char *name);
/*
 * The same without a plan: only the dependency, if the table is there.  In a
 * restore it must be the owner's; in pg_upgrade (InvalidOid) it is what it was.
 */
extern void weir_late_reattach(Oid view, Oid owner, const char *name);

/* The late table of a view; InvalidOid: none. */
extern Oid weir_late_table(Oid view);
/* The views of a late table. */
extern List *weir_late_views(Oid table);
/* The text of the option for the table as it is called now. */
extern char *weir_late_option(Oid view, Oid table);

/*
 * The view got another owner: so does the late table if it was the old one's
 * and no other view uses it.  check: else the new owner must have the rights.
 */
extern void weir_late_change_owner(Oid view, Oid old_owner, bool check);

/* A column of the stream was renamed: follow in its views' late tables. */
extern void weir_late_rename_column(Oid stream, const char *from,
									const char *to);

#endif /* WEIR_LATE_H */
