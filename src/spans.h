/*-------------------------------------------------------------------------
 *
 * spans.h
 *	  Windows that depend on the rows of their key: sessions, and windows that
 *	  count rows.  All of a key are kept together, in one group of the pane
 *	  WEIR_PANE_SPANS whose key columns of the window are null.
 *
 * Each span has a mark, by which it is known whether it is in the heap: the end
 * of a session; of a window that counts rows, one more than the ordinal of the
 * row that made it complete, or WEIR_SPAN_OPEN.  Spans become final in the order
 * of their marks, as other windows do in that of their ends.
 *
 *-------------------------------------------------------------------------
 */
#ifndef WEIR_SPANS_H
#define WEIR_SPANS_H

#include "pg_weir.h"

#include "aggregate.h"
#include "final.h"
#include "plan.h"
#include "state.h"

#define WEIR_SPAN_OPEN PG_INT64_MAX

typedef struct WeirSpans WeirSpans;

/* In the current context; aggs must outlive it. */
extern WeirSpans *weir_spans_create(const WeirViewPlan *plan, WeirAggs *aggs);

/*
 * What need not be kept any more: spans with mark <= swept are in the heap for
 * every snapshot; events of sessions that ended up to "before" less the gap are
 * late by themselves.
 */
typedef struct WeirSpanLimits
{
	int64 swept;
	int64 before;
} WeirSpanLimits;

/*
 * Live form, as of weir_aggs: a block of weir_spans_live_size() bytes in a group
 * of the batch-private cache.  load keeps pointers into bytes.
 */
extern Size weir_spans_live_size(const WeirSpans *s);
extern void weir_spans_start(WeirSpans *s, void *live);
extern void weir_spans_load(WeirSpans *s, void *live, MemoryContext cxt,
							const char *bytes, Size len,
							const WeirSpanLimits *limits);
/*
 * A row of the key.  ts and before, of sessions: its event time, and the largest
 * end of a session that is final for it.  False: the row is late, for a window
 * that ends or would have ended at *missed.
 */
extern bool weir_spans_advance(WeirSpans *s, void *live, MemoryContext cxt,
							   TupleTableSlot *input, uint64 ordinal, int64 ts,
							   int64 before, int64 *missed);
/* Nothing has been counted: there is nothing to save. */
extern bool weir_spans_is_empty(const void *live);
/* How many windows the key has. */
extern int weir_spans_count(const void *live);
extern Size weir_spans_save_size(WeirSpans *s, void *live, MemoryContext cxt);
extern void weir_spans_save(WeirSpans *s, void *live, char *dest);

/*
 * Of saved bytes: the next value of W less lateness (of windows that count: of
 * the ordinal) at which there is something to do, a span to be closed or one to
 * be forgotten; PG_INT64_MAX: none.  closed: up to which marks the rows are in
 * the heap.
 */
extern int64 weir_spans_due(WeirSpans *s, const char *bytes, Size len,
							int64 closed);

/* Is there a span with its mark in (after, through]? */
extern bool weir_spans_any(WeirSpans *s, const char *bytes, Size len,
						   int64 after, int64 through);

/*
 * Copy saved bytes without the spans that need not be kept; palloc'd.  NULL:
 * nothing of the key need be kept.  *len is the old length, then the new one;
 * the same: nothing was to be left out.
 */
extern char *weir_spans_trim(WeirSpans *s, const char *bytes, Size *len,
							 const WeirSpanLimits *limits);

/* Need nothing of the key be kept? */
extern bool weir_spans_are_over(WeirSpans *s, const char *bytes, Size len,
								const WeirSpanLimits *limits);

/* Saved bytes as texts, and back (palloc'd), as of weir_aggs. */
extern void weir_spans_out(WeirSpans *s, const char *bytes, Size len,
						   WeirTexts *to);
extern char *weir_spans_in(WeirSpans *s, WeirTexts *from, Size *len);

/*
 * Call back with each window of a group whose mark is in (after, through] as a
 * group of its own, with its window columns, pane its mark.  Of windows that
 * count rows several may show the same: each is a row.  Memory of the current
 * context is used and not freed.
 */
extern void weir_spans_show(WeirSpans *s, WeirKeys *keys, const WeirGroup *g,
							int64 after, int64 through,
							WeirGroupCallback callback, void *arg);

#endif /* WEIR_SPANS_H */
