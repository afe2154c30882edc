/*-------------------------------------------------------------------------
 *
 * final.h
 *	  A group -> a row of the view: finalise the aggregates, judge HAVING,
 *	  project the target list.  Used when a view is read and when a window
 *	  becomes final; both inside weir_secure_enter.
 *	  Also the group key: datums <-> bytes, hash, equality.
 *
 *-------------------------------------------------------------------------
 */
#ifndef WEIR_FINAL_H
#define WEIR_FINAL_H

#include "pg_weir.h"

#include "plan.h"
#include "state.h"

typedef struct WeirFinalizer WeirFinalizer;

/* In the current context; free releases everything. */
extern WeirFinalizer *weir_final_create(const WeirViewPlan *plan);
/*
 * What a group must be that is given to weir_final_row (weir_groups_layout);
 * an aggregate may have been replaced since the group was saved.
 */
extern char *weir_final_layout(const WeirFinalizer *f);
/* The state of a group without any row, palloc'd. */
extern char *weir_final_empty(WeirFinalizer *f, Size *len);
extern void weir_final_free(WeirFinalizer *f);

/*
 * The view's row of a group, or NULL if HAVING rejects it.  The slot is
 * virtual, of the view's columns, good until the next call.
 */
extern TupleTableSlot *weir_final_row(WeirFinalizer *f, const WeirGroup *g);

/*
 * Keys.  Bytes of a key: a MinimalTuple of the plan's keys, detoasted; equal
 * images are equal keys when every key is by_image.  The hash covers the keys
 * that are not is_window; NULL hashes to 0.
 */
typedef struct WeirKeys WeirKeys;

extern WeirKeys *weir_keys_create(const WeirViewPlan *plan);
extern uint32 weir_keys_hash(WeirKeys *k, const Datum *values,
							 const bool *nulls);
extern bool weir_keys_equal(WeirKeys *k, const Datum *values, const bool *nulls,
							const Datum *values2, const bool *nulls2);
extern bool weir_keys_equal_bytes(WeirKeys *k, const Datum *values,
								  const bool *nulls, const char *key);
extern char *weir_keys_form(WeirKeys *k, const Datum *values, const bool *nulls,
							Size *len); /* palloc'd */
extern void weir_keys_deform(WeirKeys *k, const char *key, Datum *values,
							 bool *nulls); /* by-ref point into key */

/*
 * What must be the same for bytes of a group to be understood: the form of the
 * aggregates, and the types of user-defined keys and states down to the columns
 * of composite ones, on which equality and hash depend, too.  Adds to
 * *relations the relations of those.
 */
extern char *weir_groups_layout(const WeirAggs *aggs, const WeirKeys *k,
								List **relations);

/*
 * Keys as texts for a dump, and back: bytes of the key, palloc'd, its hash.
 * What must be the same for these texts, and those of the aggregates, to be
 * taken: as weir_groups_layout, but by names, for values go by those.
 */
extern void weir_keys_out(WeirKeys *k, const char *key, WeirTexts *to);
extern char *weir_keys_in(WeirKeys *k, WeirTexts *from, Size *len);
extern char *weir_groups_dump_layout(const WeirAggs *aggs, const WeirKeys *k);

#endif /* WEIR_FINAL_H */
