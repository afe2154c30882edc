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
/*
 * What equality and hash of the keys depend on beside their types' names: the
 * columns of composite types, as text; "" if there are none.  Adds to
 * *relations the relations of those types.
 */
extern char *weir_keys_layout(const WeirKeys *k, List **relations);
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

#endif /* WEIR_FINAL_H */
