/*-------------------------------------------------------------------------
 *
 * final.c
 *	  A group -> a row of the view; the group key: datums <-> bytes, hash,
 *	  equality.
 *
 * Relies on plan.c for expressions that are ready for the executor: Vars have
 * varno 1 and number the columns of the row of keys and finalised aggregates.
 * No expression holds a subquery or an aggregate, so no plan state is needed.
 *
 * Memory: a finalizer and a WeirKeys own one context each, children of the
 * context current at creation.  The memory of a row is reset by the next
 * weir_final_row().  weir_keys_hash() and the equality functions may leave
 * detoasted copies in the current context, which the caller resets.
 *
 * Format of a key's bytes: a MinimalTuple of the plan's keys, t_infomask2 and
 * null bitmap as the server makes them, no value external or compressed, every
 * packable value with the short header if it fits.  Two keys of which every
 * key is by_image are equal iff their bytes are: values are normalised here
 * and the tuple's padding is zero.
 *
 * Of a by_image key the image is hashed, of another the type's hash function
 * called: equal keys have equal hashes either way.  A hash is never stored in
 * a checkpoint.
 *
 * User code (final functions, expressions, equality, hash) runs in here: the
 * caller holds no lock and is inside weir_secure_enter(owner).
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/detoast.h"
#include "access/htup_details.h"
#include "access/transam.h"
#include "access/tupmacs.h"
#include "common/hashfn.h"
#include "executor/executor.h"
#include "fmgr.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/typcache.h"

#include "aggregate.h"
#include "compat.h"
#include "debug.h"
#include "final.h"
#include "state.h"

struct WeirFinalizer
{
	MemoryContext cxt; /* holds everything below */
	EState *estate;
	ExprContext *econtext;
	WeirAggs *aggs;
	WeirKeys *keys;
	int nkeys;
	int naggs;
	bool copy_key; /* some key is by reference */

	TupleTableSlot *group; /* the row of keys and aggregates */
	TupleTableSlot *result;
	ExprState *having; /* or NULL */

	/* target list: either all bare columns, or a projection */
	AttrNumber *bare;			/* column of the group row per view column */
	ProjectionInfo *projection; /* NULL: use bare */
};

/* How a key is compared and hashed. */
typedef enum KeyMode
{
	KEY_VALUE,	   /* by image, by value */
	KEY_FIXED,	   /* by image, fixed length by reference */
	KEY_VARLENA,   /* by image, varlena */
	KEY_FUNCTIONS, /* by the type's functions */
} KeyMode;

typedef struct KeyFunctions
{
	KeyMode mode;
	FmgrInfo eq;
	FmgrInfo hash;
} KeyFunctions;

struct WeirKeys
{
	MemoryContext cxt;
	int nkeys;
	TupleDesc desc;
	WeirKey *keys;		/* copy of the plan's */
	const char *window; /* which it is, as part of the layout */
	KeyFunctions *functions;
	Datum *values; /* scratch */
	bool *nulls;
	WeirTypeIO *io; /* dumps; made at first use */
};


/* ---------- keys ---------- */

static KeyMode
key_mode(const WeirKey *key)
{
	if (!key->by_image)
		return KEY_FUNCTIONS;
	if (key->typbyval)
		return KEY_VALUE;
	if (key->typlen == -1)
		return KEY_VARLENA;
	return key->typlen > 0 ? KEY_FIXED : KEY_FUNCTIONS;
}

/* What groups and panes are by their window: of another one they mean nothing. */
static const char *
window_layout(const WeirViewPlan *plan)
{
	const WeirWindow *w = &plan->window;

	if (w->kind == WEIR_WINDOW_NONE)
		return "";
	return psprintf(";window:%d," INT64_FORMAT "," INT64_FORMAT "," INT64_FORMAT
					",%d,%d," INT64_FORMAT ",%s,%d,%d,%d,%d/%d",
					w->kind, w->size, w->slide, w->origin, w->unit.month,
					w->unit.day, w->unit.time,
					w->zone ? pg_get_timezone_name(w->zone) : "",
					w->is_timestamptz, w->by_arrival, w->key_is_end,
					plan->window_key, plan->nkeys);
}

WeirKeys *
weir_keys_create(const WeirViewPlan *plan)
{
	MemoryContext cxt = AllocSetContextCreate(CurrentMemoryContext, "weir keys",
											  ALLOCSET_SMALL_SIZES);
	MemoryContext old = MemoryContextSwitchTo(cxt);
	WeirKeys *k = palloc0(sizeof(WeirKeys));

	k->cxt = cxt;
	k->nkeys = plan->nkeys;
	k->desc = CreateTemplateTupleDesc(plan->nkeys);
	k->keys = palloc0(sizeof(WeirKey) * (plan->nkeys + 1));
	k->functions = palloc0(sizeof(KeyFunctions) * (plan->nkeys + 1));
	k->values = palloc0(sizeof(Datum) * (plan->nkeys + 1));
	k->nulls = palloc0(sizeof(bool) * (plan->nkeys + 1));
	for (int i = 0; i < plan->nkeys; i++)
	{
		WeirKey *key = &k->keys[i];

		*key = plan->keys[i];
		TupleDescInitEntry(k->desc, i + 1, NULL, key->type, key->typmod, 0);
		TupleDescInitEntryCollation(k->desc, i + 1, key->collation);
		k->functions[i].mode = key_mode(key);
		fmgr_info(key->eq_proc, &k->functions[i].eq);
		if (OidIsValid(key->hash_proc))
			fmgr_info(key->hash_proc, &k->functions[i].hash);
	}
	k->window = window_layout(plan);
	MemoryContextSwitchTo(old);
	return k;
}

/*
 * Append what values of a type are beside its name: its OID, as types can be
 * renamed and others take their names, and the columns of composite types.
 */
static void
append_type(StringInfo buf, Oid type, List **relations)
{
	Oid inner;
	TupleDesc desc;

	check_stack_depth();
	if (type >= FirstNormalObjectId)
		appendStringInfo(buf, "%u,", getBaseType(type));
	type = getBaseType(type);
	inner = get_element_type(type);
	if (!OidIsValid(inner))
		inner = get_range_subtype(type);
	if (!OidIsValid(inner))
		inner = get_multirange_range(type);
	if (OidIsValid(inner))
		append_type(buf, inner, relations);
	if (!OidIsValid(get_typ_typrelid(type)))
		return;

	*relations = list_append_unique_oid(*relations, get_typ_typrelid(type));
	desc = lookup_rowtype_tupdesc(type, -1);
	appendStringInfo(buf, "%s(", format_type_be_qualified(type));
	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute att = TupleDescAttr(desc, i);

		if (att->attisdropped)
			continue;
		appendStringInfo(buf, "%s,", format_type_be_qualified(att->atttypid));
		append_type(buf, att->atttypid, relations);
	}
	appendStringInfoChar(buf, ')');
	ReleaseTupleDesc(desc);
}

char *
weir_groups_layout(const WeirAggs *aggs, const WeirKeys *k, List **relations)
{
	char *layout = weir_aggs_layout(aggs);
	StringInfoData buf;
	ListCell *lc;

	initStringInfo(&buf);
	for (int i = 0; i < k->nkeys; i++)
		append_type(&buf, k->keys[i].type, relations);
	foreach(lc, weir_aggs_types(aggs))
		append_type(&buf, lfirst_oid(lc), relations);
	if (buf.len == 0 && k->window[0] == '\0')
		return layout;
	return psprintf("%s%s%s%s", layout, k->window,
					buf.len == 0 ? "" : ";types:", buf.data);
}

/*
 * A by-value datum counts only to its length: what a function returns and what
 * a tuple gives back may differ in the rest.
 */
static inline uint64
value_image(const WeirKey *key, Datum value)
{
	switch (key->typlen)
	{
		case sizeof(char):
			return DatumGetUInt8(value);
		case sizeof(int16):
			return DatumGetUInt16(value);
		case sizeof(int32):
			return DatumGetUInt32(value);
		default:
			return (uint64) value;
	}
}

/* The plain form of a varlena; *copy: to be freed. */
static inline struct varlena *
plain_varlena(Datum value, bool *copy)
{
	struct varlena *v = (struct varlena *) DatumGetPointer(value);

	*copy = VARATT_IS_EXTERNAL(v) || VARATT_IS_COMPRESSED(v);
	return *copy ? detoast_attr(v) : v;
}

static uint32
key_hash(const WeirKey *key, KeyFunctions *functions, Datum value)
{
	uint64 image;
	uint32 hash;
	bool copy;
	struct varlena *v;

	switch (functions->mode)
	{
		case KEY_VALUE:
			image = value_image(key, value);
			return murmurhash32((uint32) image) ^
				   murmurhash32((uint32) (image >> 32) + 0x9e3779b9);
		case KEY_FIXED:
			return hash_bytes((unsigned char *) DatumGetPointer(value),
							  key->typlen);
		case KEY_VARLENA:
			v = plain_varlena(value, &copy);
			hash = hash_bytes((unsigned char *) VARDATA_ANY(v),
							  VARSIZE_ANY_EXHDR(v));
			if (copy)
				pfree(v);
			return hash;
		case KEY_FUNCTIONS:
			break;
	}
	if (!OidIsValid(key->hash_proc))
		return 0;
	return DatumGetUInt32(
		FunctionCall1Coll(&functions->hash, key->collation, value));
}

uint32
weir_keys_hash(WeirKeys *k, const Datum *values, const bool *nulls)
{
	uint32 hash = 0;

	for (int i = 0; i < k->nkeys; i++)
	{
		if (k->keys[i].is_window)
			continue;
		hash = pg_rotate_left32(hash, 1);
		if (!nulls[i])
			hash ^= key_hash(&k->keys[i], &k->functions[i], values[i]);
	}
	return murmurhash32(hash);
}

static bool
key_equal(const WeirKey *key, KeyFunctions *functions, Datum a, Datum b)
{
	switch (functions->mode)
	{
		case KEY_VALUE:
			return value_image(key, a) == value_image(key, b);
		case KEY_FIXED:
			return memcmp(DatumGetPointer(a), DatumGetPointer(b),
						  key->typlen) == 0;
		case KEY_VARLENA:
		{
			bool copy_x;
			bool copy_y;
			struct varlena *x = plain_varlena(a, &copy_x);
			struct varlena *y = plain_varlena(b, &copy_y);
			Size len = VARSIZE_ANY_EXHDR(x);
			bool equal;

			equal = len == VARSIZE_ANY_EXHDR(y) &&
					memcmp(VARDATA_ANY(x), VARDATA_ANY(y), len) == 0;
			if (copy_x)
				pfree(x);
			if (copy_y)
				pfree(y);
			return equal;
		}
		case KEY_FUNCTIONS:
			break;
	}
	return DatumGetBool(
		FunctionCall2Coll(&functions->eq, key->collation, a, b));
}

bool
weir_keys_equal(WeirKeys *k, const Datum *values, const bool *nulls,
				const Datum *values2, const bool *nulls2)
{
	for (int i = 0; i < k->nkeys; i++)
	{
		if (nulls[i] != nulls2[i])
			return false;
		if (!nulls[i] &&
			!key_equal(&k->keys[i], &k->functions[i], values[i], values2[i]))
			return false;
	}
	return true;
}

/* Compares in place, without taking the tuple apart first. */
bool
weir_keys_equal_bytes(WeirKeys *k, const Datum *values, const bool *nulls,
					  const char *key)
{
	MinimalTuple tuple = (MinimalTuple) unconstify(char *, key);
	bool has_nulls = (tuple->t_infomask & HEAP_HASNULL) != 0;
	char *data = unconstify(char *, key) - MINIMAL_TUPLE_OFFSET + tuple->t_hoff;
	uint32 off = 0;

	for (int i = 0; i < k->nkeys; i++)
	{
		const WeirKey *att = &k->keys[i];
		bool null = has_nulls && att_isnull(i, tuple->t_bits);

		if (null != nulls[i])
			return false;
		if (null)
			continue;
		off = att_align_pointer(off, att->typalign, att->typlen, data + off);
		if (!key_equal(att, &k->functions[i], values[i],
					   fetch_att(data + off, att->typbyval, att->typlen)))
			return false;
		off = att_addlength_pointer(off, att->typlen, data + off);
	}
	return true;
}

char *
weir_keys_form(WeirKeys *k, const Datum *values, const bool *nulls, Size *len)
{
	MinimalTuple tuple;

	for (int i = 0; i < k->nkeys; i++)
	{
		k->nulls[i] = nulls[i];
		k->values[i] = values[i];
		if (nulls[i] || k->keys[i].typlen != -1)
			continue;
		if (VARATT_IS_EXTENDED(DatumGetPointer(values[i])) &&
			!VARATT_IS_SHORT(DatumGetPointer(values[i])))
			k->values[i] = PointerGetDatum(PG_DETOAST_DATUM(values[i]));
	}
	tuple = weir_form_minimal_tuple(k->desc, k->values, k->nulls);
	for (int i = 0; i < k->nkeys; i++)
	{
		if (!nulls[i] && k->values[i] != values[i])
			pfree(DatumGetPointer(k->values[i]));
	}
	*len = tuple->t_len;
	return (char *) tuple;
}

void
weir_keys_deform(WeirKeys *k, const char *key, Datum *values, bool *nulls)
{
	MinimalTuple tuple = (MinimalTuple) unconstify(char *, key);
	HeapTupleData heap;

	heap.t_len = tuple->t_len + MINIMAL_TUPLE_OFFSET;
	heap.t_data =
		(HeapTupleHeader) (unconstify(char *, key) - MINIMAL_TUPLE_OFFSET);
	heap_deform_tuple(&heap, k->desc, values, nulls);
}

static void
make_io(WeirKeys *k)
{
	MemoryContext old;

	if (k->io != NULL)
		return;
	old = MemoryContextSwitchTo(k->cxt);
	k->io = palloc0((k->nkeys + 1) * sizeof(WeirTypeIO));
	for (int i = 0; i < k->nkeys; i++)
		weir_type_io_init(&k->io[i], k->keys[i].type);
	MemoryContextSwitchTo(old);
}

void
weir_keys_out(WeirKeys *k, const char *key, WeirTexts *to)
{
	Datum *values = palloc((k->nkeys + 1) * sizeof(Datum));
	bool *nulls = palloc((k->nkeys + 1) * sizeof(bool));

	make_io(k);
	weir_keys_deform(k, key, values, nulls);
	for (int i = 0; i < k->nkeys; i++)
		weir_texts_add_value(to, &k->io[i], values[i], nulls[i]);
}

char *
weir_keys_in(WeirKeys *k, WeirTexts *from, Size *len)
{
	Datum *values = palloc((k->nkeys + 1) * sizeof(Datum));
	bool *nulls = palloc((k->nkeys + 1) * sizeof(bool));

	make_io(k);
	for (int i = 0; i < k->nkeys; i++)
		values[i] = weir_texts_next_value(from, &k->io[i], k->keys[i].typmod,
										  &nulls[i]);
	return weir_keys_form(k, values, nulls, len);
}

char *
weir_groups_dump_layout(const WeirAggs *aggs, const WeirKeys *k)
{
	StringInfoData buf;

	initStringInfo(&buf);
	appendStringInfo(&buf, "%s%s;keys:", weir_aggs_layout(aggs), k->window);
	for (int i = 0; i < k->nkeys; i++)
		appendStringInfo(&buf, "%s,",
						 format_type_be_qualified(k->keys[i].type));
	return buf.data;
}


/* ---------- rows ---------- */

/* The target list as column numbers, or NULL if it holds an expression. */
static AttrNumber *
bare_columns(List *targetlist)
{
	AttrNumber *bare =
		palloc(sizeof(AttrNumber) * (list_length(targetlist) + 1));
	ListCell *lc;

	foreach(lc, targetlist)
	{
		Expr *expr = lfirst_node(TargetEntry, lc)->expr;

		if (!IsA(expr, Var))
			return NULL;
		bare[foreach_current_index(lc)] = ((Var *) expr)->varattno;
	}
	return bare;
}

WeirFinalizer *
weir_final_create(const WeirViewPlan *plan)
{
	MemoryContext cxt = AllocSetContextCreate(
		CurrentMemoryContext, "weir final", ALLOCSET_DEFAULT_SIZES);
	MemoryContext old = MemoryContextSwitchTo(cxt);
	WeirFinalizer *f = palloc0(sizeof(WeirFinalizer));

	f->cxt = cxt;
	f->estate = CreateExecutorState();
	f->econtext = CreateExprContext(f->estate);
	f->aggs = weir_aggs_create(plan->aggs, f->estate, plan->merged);
	f->keys = weir_keys_create(plan);
	f->nkeys = plan->nkeys;
	f->naggs = list_length(plan->aggs);
	for (int i = 0; i < plan->nkeys; i++)
	{
		if (!plan->keys[i].typbyval)
			f->copy_key = true;
	}

	/* a slot keeps its descriptor: the plan's may go before the finalizer */
	f->group = MakeSingleTupleTableSlot(CreateTupleDescCopy(plan->final_desc),
										&TTSOpsVirtual);
	f->result = MakeSingleTupleTableSlot(ExecTypeFromTL(plan->targetlist),
										 &TTSOpsVirtual);
	f->econtext->ecxt_scantuple = f->group;
	if (plan->having != NULL)
		f->having = ExecInitQual(
			make_ands_implicit((Expr *) copyObject(plan->having)), NULL);
	f->bare = bare_columns(plan->targetlist);
	if (f->bare == NULL)
		f->projection = ExecBuildProjectionInfo(copyObject(plan->targetlist),
												f->econtext, f->result, NULL,
												f->group->tts_tupleDescriptor);
	MemoryContextSwitchTo(old);
	return f;
}

char *
weir_final_layout(const WeirFinalizer *f)
{
	List *relations = NIL;

	return weir_groups_layout(f->aggs, f->keys, &relations);
}

char *
weir_final_empty(WeirFinalizer *f, Size *len)
{
	return weir_aggs_empty(f->aggs, len);
}

void
weir_final_free(WeirFinalizer *f)
{
	weir_aggs_free(f->aggs);
	ExecDropSingleTupleTableSlot(f->group);
	ExecDropSingleTupleTableSlot(f->result);
	FreeExecutorState(f->estate);
	MemoryContextDelete(f->cxt);
}

TupleTableSlot *
weir_final_row(WeirFinalizer *f, const WeirGroup *g)
{
	TupleTableSlot *group = f->group;
	TupleTableSlot *result = f->result;
	ExprContext *econtext = f->econtext;
	MemoryContext old;
	const char *key = g->key;

	ExecClearTuple(result);
	ExecClearTuple(group);
	ResetExprContext(econtext);
	old = MemoryContextSwitchTo(econtext->ecxt_per_tuple_memory);

	/* the row may outlive the caller's copy of the group */
	if (f->copy_key)
		key = memcpy(palloc(g->keylen), g->key, g->keylen);
	weir_keys_deform(f->keys, key, group->tts_values, group->tts_isnull);
	memset(group->tts_isnull + f->nkeys, true, sizeof(bool) * f->naggs);
	/*
	 * Valid from here on: direct arguments of ordered-set aggregates read its
	 * keys while its aggregates are filled in.
	 */
	ExecStoreVirtualTuple(group);
	weir_aggs_final(f->aggs, g->state, g->statelen, group,
					group->tts_values + f->nkeys, group->tts_isnull + f->nkeys);
	MemoryContextSwitchTo(old);

	if (f->having != NULL && !ExecQual(f->having, econtext))
		return NULL;
	if (f->projection != NULL)
		return ExecProject(f->projection);

	for (int i = 0; i < result->tts_tupleDescriptor->natts; i++)
	{
		int column = f->bare[i] - 1;

		result->tts_values[i] = group->tts_values[column];
		result->tts_isnull[i] = group->tts_isnull[column];
	}
	return ExecStoreVirtualTuple(result);
}
