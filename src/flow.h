/*-------------------------------------------------------------------------
 *
 * flow.h
 *	  One running continuous query in a worker: its input plan, its
 *	  batch-private write-back cache of touched groups, its state.
 *
 * A batch is begin, slice*, publish.  A user error in slice leaves the shared
 * state untouched; the caller aborts the subtransaction and calls discard.
 *
 *-------------------------------------------------------------------------
 */
#ifndef WEIR_FLOW_H
#define WEIR_FLOW_H

#include "pg_weir.h"

#include "catalog.h"
#include "final.h"
#include "late.h"
#include "plan.h"
#include "shmem.h"
#include "state.h"

/* The slice is declared in stream.h (rank 7): flow only hands it through. */
struct WeirSlice;

typedef struct WeirFlow
{
	Oid view;
	int64 generation;
	WeirViewShared *v;
	MemoryContext cxt; /* "weir flow": lives with the flow */
	WeirViewPlan *plan;
	WeirViewOptions *options;
	PlannedStmt *input_plan;
	WeirState *state;
	WeirPosition position; /* consumed and published */
	TimestampTz watermark; /* W at position */
	/* allowed_lateness as it is in force, us; recorded with the position, so that
	 * replay judges alike */
	int64 lateness;
	int64 closed_before; /* panes with end <= this take no more rows */
	int64 kept_through;	 /* a rebuild: windows with end <= this stay as they
						  * are in the view; else PG_INT64_MIN */
	bool continues; /* from a predecessor's state in memory, or begins anew:
					 * nothing beyond position has been judged */

	/* set by the worker between begin and publish */
	uint64 batch_events; /* events of the batch, before WHERE */
	bool too_large;	 /* what was raised says that state_memory is too small */
	bool one_by_one; /* fold each row before the next is fetched, so
								 * that an error is that row's */
	struct WeirFlowPrivate *priv;
} WeirFlow;

/*
 * Open: plan as the owner, attach the state, load the checkpoint if the state
 * is fresh.  In a transaction; raises (rights, refusals, corrupt checkpoint).
 */
extern WeirFlow *weir_flow_open(Oid view, int64 generation, bool answering,
								MemoryContext parent);
extern void weir_flow_close(WeirFlow *flow); /* state stays in memory */

/*
 * A flow of this process alone, which nobody else sees, from the checkpoint of a
 * generation that the snapshot shows; between weir_state_private_begin and end.
 * It takes batches, but is never checkpointed.
 */
extern WeirFlow *weir_flow_open_copy(Oid view, int64 generation,
									 Snapshot snapshot, MemoryContext parent);

extern void weir_flow_begin(WeirFlow *flow);

/*
 * Run the rows of the current slice (weir_stream_set_slice was called by the
 * worker) through the input plan and fold them.  at_chunk is the slice's (the
 * chunk the scan stands in), watermarks holds for each chunk of the slice the
 * W before its transaction, by which its rows are judged.
 * source: how to look up the event at hand.
 */
extern void weir_flow_slice(WeirFlow *flow, const int *at_chunk,
							const TimestampTz *watermarks,
							const WeirEventSource *source);

/* Serialise and reserve (may raise), then publish (does not). */
extern void weir_flow_publish(WeirFlow *flow, WeirPosition position,
							  TimestampTz watermark);
extern void weir_flow_discard(WeirFlow *flow);

/* Windows with end <= this are final at the flow's watermark. */
extern int64 weir_flow_final_before(WeirFlow *flow);
/* The smallest end of a window that may have rows and is not in the heap;
 * PG_INT64_MAX: none. */
extern int64 weir_flow_next_end(WeirFlow *flow);
/* A key has so many windows, kept together, that those that are final should go
 * to the heap soon. */
extern bool weir_flow_piles_up(const WeirFlow *flow);
/* The smallest end of a window that may have rows and is not final. */
extern int64 weir_flow_open_end(WeirFlow *flow);

/* Checkpoint this flow (top-level transaction of its own).  False: lost the
 * ownership. */
extern bool weir_flow_checkpoint(WeirFlow *flow);
/* Before that, for so many microseconds, what can be written ahead of it (the
 * same).  *more: there is more of it. */
extern bool weir_flow_write_ahead(WeirFlow *flow, int64 us, bool *more);

/*
 * A transaction whose windows do not fit into memory, in parts: windows in which
 * nothing of it can come any more, and that are final after it, go to the heap
 * before the rest is read.  One checkpoint holds it all, and readers see nothing
 * of it before.  The flow must be as its last checkpoint.
 *
 * fold calls weir_flow_begin, weir_flow_slice.., weir_flow_part again and again;
 * position and watermark are those after the transaction.  False: lost the
 * ownership.  Raises with the transaction open; then the flow can only be closed,
 * and the next one opened starts from the checkpoint before.
 */
extern bool weir_flow_consume_in_parts(WeirFlow *flow, void (*fold)(void *arg),
									   void *arg, WeirPosition position,
									   TimestampTz watermark);
/* A part is through; no event to come has a time before rest. */
extern void weir_flow_part(WeirFlow *flow, TimestampTz rest);
/* Has it raised on the way?  Then all that can be done is to close it. */
extern bool weir_flow_is_half_through(const WeirFlow *flow);
/* Would windows close meanwhile? */
extern bool weir_flow_can_part(const WeirFlow *flow);

/*
 * For a dump of one that was opened so: all its groups as texts, pane, key,
 * state, which are good until the callback returns; how they are kept; its late
 * events that are not in the late table.  Inside weir_secure_enter.
 */
typedef void (*WeirTextsCallback)(WeirTexts *texts, void *arg);
extern void weir_flow_out(WeirFlow *flow, WeirTextsCallback callback,
						  void *arg);
extern char *weir_flow_dump_layout(const WeirFlow *flow);
extern void weir_flow_late_out(WeirFlow *flow, WeirTextsCallback callback,
							   void *arg);

/*
 * For a restore: groups of a view from such texts.  in: a group in the current
 * context, but for its hash; raises 22P03 if it is none.
 */
typedef struct WeirGroupReader WeirGroupReader;

extern WeirGroupReader *weir_group_reader_create(const WeirViewPlan *plan);
extern char *weir_group_reader_layout(WeirGroupReader *r, bool dump);
extern bool weir_group_reader_any_serial(WeirGroupReader *r);
extern void weir_group_reader_in(WeirGroupReader *r, WeirTexts *from,
								 WeirGroup *g);

/* The position row as it was last read or written durably. */
extern const WeirPositionRow *weir_flow_row(const WeirFlow *flow);
/* Has anything been consumed that the last checkpoint does not hold? */
extern bool weir_flow_dirty(const WeirFlow *flow);
/* Is one due because much waits for it? */
extern bool weir_flow_wants_checkpoint(const WeirFlow *flow);
/* It has once reached the end of its history; durable by the next checkpoint. */
extern void weir_flow_set_built(WeirFlow *flow);

/*
 * Write into the position row that the view has failed (message not NULL), or
 * that it has not: resumes is the wish's.  A transaction of its own.  False:
 * lost the ownership.
 */
extern bool weir_flow_record_failure(WeirFlow *flow, int64 resumes,
									 const char *sqlstate, const char *message);

/* Has anything changed that the plan depends on? */
extern bool weir_flow_is_stale(const WeirFlow *flow);
/*
 * A changed allowed_lateness shall be put into force by the next checkpoint.
 * True: that is new.  While weir_flow_adopts the caller folds nothing: the
 * position from which on it counts must be durable first, or a successor or a
 * replay would judge otherwise.
 */
extern bool weir_flow_adopt_lateness(WeirFlow *flow);
extern bool weir_flow_adopts(const WeirFlow *flow);

/* An event was skipped: to be written by the next checkpoint.  json NULL: it
 * could not be shown.  discard forgets those of the unpublished batch. */
extern void weir_flow_add_error(WeirFlow *flow, const char *json,
								const char *sqlstate, const char *message);

/* Plan again, and read the options again, if something they depend on has
 * changed; in a transaction with a snapshot. */
extern void weir_flow_replan(WeirFlow *flow);

/* Free memory of windows that are in the heap and that no snapshot needs any
 * more; own transaction.  Checkpoints do so too, but may be long in coming. */
extern void weir_flow_sweep(WeirFlow *flow);

/* Delete final rows that option retention lets go, all of them or when enough of
 * them are worth reading the view; own transaction. */
extern void weir_flow_expire(WeirFlow *flow, bool all);

/*
 * Which windows a final row is of can be seen from the row.  And, inside
 * weir_secure_enter, how many of the final rows that are there now are of windows
 * with end <= through.
 */
extern bool weir_flow_shows_window(const WeirViewPlan *plan);
extern int64 weir_flow_count_final(const WeirViewPlan *plan, Relation view,
								   int64 through);

/*
 * A rebuild has caught up: swap it in, in one transaction of its own.  The
 * caller has just checkpointed the flow, and if windows are kept, the one that
 * answers, at the same position.  Raises when the view's lock cannot be had
 * within lock_timeout (try again), false: lost the ownership.
 */
extern bool weir_flow_swap(WeirFlow *flow);

#endif /* WEIR_FLOW_H */
