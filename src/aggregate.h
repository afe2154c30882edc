/*-------------------------------------------------------------------------
 *
 * aggregate.h
 *	  The aggregates of one group: start, advance by an input row, save as
 *	  bytes, load, merge, finalise.  Calls the server's own transition and final
 *	  functions row by row: bit-identical to the batch query, unless states are
 *	  merged; then to it as a parallel one, that is up to the rounding of floats
 *	  and to which of equal values stands for them (1.0 and 1.00 in max).
 *
 * Representation of one transition state ("rep"):
 *	FLAT	the transition type is not internal: the value itself
 *	INT128	the int8_avg_accum family (sum(int8), avg(int8)): 48 flat bytes,
 *			after a self-test of the server's struct; else SERIAL
 *	SERIAL	internal with serialize, deserialize and combine functions, and
 *			not polymorphic: its serial form
 *	ROWS	other internal ones, or DISTINCT or ORDER BY in the aggregate, or
 *			an ordered-set aggregate: the input rows, in log order; the
 *			aggregate is run over them when finalised.  Where states are to be
 *			merged, also user-defined aggregates, and those that go by the order
 *			of rows: then each row has its number, and merging puts them
 *			together
 * Aggregates with equal transition function, input and filter share a state
 * (sum(x), avg(x)), as in the server.
 *
 * Saved bytes hold no pointer and no hash value, and have the same layout in
 * shared memory and in checkpoints; weir_aggs_layout() describes it as text
 * for the position row: it is compared before loading.
 *
 * All functions that run user code must be called inside weir_secure_enter.
 *
 *-------------------------------------------------------------------------
 */
#ifndef WEIR_AGGREGATE_H
#define WEIR_AGGREGATE_H

#include "pg_weir.h"

#include "executor/tuptable.h"
#include "nodes/execnodes.h"
#include "nodes/pg_list.h"
#include "nodes/primnodes.h"
#include "texts.h"

/*
 * One Aggref of the view's query, with where its inputs are found in the rows
 * of the input query.
 */
typedef struct WeirAggSpec
{
	Aggref *aggref;			 /* as analysed; args' expressions unused */
	int nargs;				 /* = list_length(aggref->args), resjunk sort
								 * columns included */
	AttrNumber *arg_attno;	 /* column of the input row, 1-based, per arg */
	AttrNumber filter_attno; /* boolean column, or 0 */
} WeirAggSpec;

typedef struct WeirAggs WeirAggs;

/* specs: list of WeirAggSpec, in the order of the finalised columns.  econtext
 * evaluates direct arguments of ordered-set aggregates over the key row
 * (Vars of which have varno 1 and the key's number).  merged: states can be
 * given to weir_aggs_merge; it is part of the layout. */
extern WeirAggs *weir_aggs_create(List *specs, EState *estate, bool merged);
extern void weir_aggs_free(WeirAggs *aggs);

/* How the states are saved. */
extern char *weir_aggs_layout(const WeirAggs *aggs); /* palloc'd text */
/* Types of which values may lie in the states; a list of OIDs. */
extern List *weir_aggs_types(const WeirAggs *aggs);

/*
 * Live form: an opaque block of weir_aggs_live_size() bytes, MAXALIGNed, in a
 * group of the batch-private cache.  By-reference values and internal states
 * live in cxt, which is reset only with the whole cache.
 */
extern Size weir_aggs_live_size(const WeirAggs *aggs);
extern void weir_aggs_start(WeirAggs *aggs, void *live, MemoryContext cxt);
extern void weir_aggs_load(WeirAggs *aggs, void *live, MemoryContext cxt,
						   const char *bytes, Size len);
/*
 * Merge a saved state into a live one, so that it becomes that of the rows of
 * both.  In any order; raises what the server's combine functions do (22003).
 * The bytes need only be good during the call, aligned as for load.
 */
extern void weir_aggs_merge(WeirAggs *aggs, void *live, MemoryContext cxt,
							const char *bytes, Size len);
/* input: all values fetched.  ordinal: the row's place along the log, growing
 * from row to row; used if merged. */
extern void weir_aggs_advance(WeirAggs *aggs, void *live, MemoryContext cxt,
							  TupleTableSlot *input, uint64 ordinal);
/* Two steps so that the caller can place the bytes: size (serialises SERIAL
 * states into cxt-owned memory), then copy. */
extern Size weir_aggs_save_size(WeirAggs *aggs, void *live, MemoryContext cxt);
extern void weir_aggs_save(WeirAggs *aggs, void *live, char *dest);

/*
 * Finalise saved bytes into values/nulls (one per spec).  keys: the group's
 * key row (for direct arguments).  Results live in the current context, which
 * the caller resets; the bytes need only be good during the call.
 */
extern void weir_aggs_final(WeirAggs *aggs, const char *bytes, Size len,
							TupleTableSlot *keys, Datum *values, bool *nulls);

/*
 * Saved bytes as texts, which another server of this layout takes, and back
 * (palloc'd); the texts may be anybody's.  A SERIAL state is bytes that only its
 * deserialize function understands, which may trust them, and which may be of
 * this major version: are there any?
 */
extern void weir_aggs_out(WeirAggs *aggs, const char *bytes, Size len,
						  WeirTexts *to);
extern char *weir_aggs_in(WeirAggs *aggs, WeirTexts *from, Size *len);
extern bool weir_aggs_any_serial(const WeirAggs *aggs);

/* The saved form of a group that has seen no row (unwindowed, no GROUP BY). */
extern char *weir_aggs_empty(WeirAggs *aggs, Size *len);

#endif /* WEIR_AGGREGATE_H */
