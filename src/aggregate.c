/*-------------------------------------------------------------------------
 *
 * aggregate.c
 *	  The aggregates of one group: start, advance by an input row, save as
 *	  bytes, load, merge, finalise.
 *
 * Relies on: nodeAgg.h's public structs.  The server's aggregate functions
 * find their context through an AggState, so a dummy one is passed to them in
 * which just the fields are set that the Agg* support functions read
 * (AggCheckCallContext, AggGetAggref, AggGetTempMemoryContext,
 * AggStateIsShared, AggRegisterCallback).
 *
 * Guarantees: each transition function sees the same arguments in the same
 * order as in a batch query that reads the rows in log order.  States are
 * combined only by weir_aggs_merge, and there the functions of which the result
 * goes by the order of rows see all rows in log order: their states are rows
 * with numbers.  No memory is left behind by a row.
 *
 * What a deserialize function returns is fit for nothing but to be the second
 * argument of the combine function: numeric_deserialize of PostgreSQL 18, for
 * one, makes a state that would add no more squares.  So a SERIAL state that
 * was loaded is combined with none, which gives a copy that can go on.
 *
 * Saved bytes, all parts MAXALIGNed:
 *
 *	bits		two a transition state: is null; has no value yet (strict
 *				function without initial value)
 *	fixed part	per state at a fixed offset:
 *				VALUE	the Datum, 8 bytes
 *				REF		of fixed length: the value
 *				PAIR	count, sum (int8), of the int8[2] of avg(int2, int4)
 *				INT128	48 bytes, the server's Int128AggState; padding is zero
 *	variable	per state, unless null: uint64 length, then
 *				REF		the value with its varlena header, or the C string
 *				SERIAL	the bytea its serialize function made
 *				ROWS	uint64: bytes at the front known to hold no two equal
 *						rows (DISTINCT); then rows
 *
 * None of it is of one major version of the server alone, so that checkpoints
 * outlive pg_upgrade: VALUE and REF are as in its tables, INT128 is tried before
 * it is used (int128_layout_holds), and what serialize functions write is only
 * believed across major versions if it is known not to have changed
 * (is_steady).  Otherwise the layout names the major version.
 *
 * A row is uint32 length (MAXALIGNed, the whole row), a bitmap of not-null
 * columns, padding, then the columns as in a heap tuple, with nothing out of
 * line.  Where states can be merged, uint64 stands before the columns: the
 * number of the row along the log.
 *
 * XXX ROWS states are copied whole whenever their group is touched in a batch:
 * quadratic for groups with many rows that grow in many batches.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/detoast.h"
#include "access/htup_details.h"
#include "access/tupmacs.h"
#include "catalog/objectaccess.h"
#include "catalog/pg_aggregate.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_type.h"
#include "common/hashfn.h"
#include "common/int.h"
#include "executor/executor.h"
#include "executor/nodeAgg.h"
#include "miscadmin.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/optimizer.h"
#include "parser/parse_agg.h"
#include "parser/parse_coerce.h"
#include "utils/acl.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/expandeddatum.h"
#include "utils/float.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/sortsupport.h"
#include "utils/syscache.h"

#include "aggregate.h"
#include "compat.h"
#include "debug.h"
#include "first_last.h"

typedef enum Rep
{
	REP_VALUE, /* FLAT, by value */
	REP_REF,   /* FLAT, by reference */
	REP_PAIR,  /* FLAT, int8[2] without its array header */
	REP_INT128,
	REP_SERIAL,
	REP_ROWS
} Rep;

/* How a row is folded in: the server's function, or its equal in here. */
typedef enum Kernel
{
	KERNEL_CALL,
	KERNEL_COUNT,	  /* int8inc */
	KERNEL_COUNT_ANY, /* int8inc_any */
	KERNEL_SUM_INT4,
	KERNEL_SUM_INT2,
	KERNEL_MAX_INT8,
	KERNEL_MIN_INT8,
	KERNEL_MAX_INT4,
	KERNEL_MIN_INT4,
	KERNEL_MAX_INT2,
	KERNEL_MIN_INT2,
	KERNEL_SUM_FLOAT8,
	KERNEL_MAX_FLOAT8,
	KERNEL_MIN_FLOAT8,
	KERNEL_BOOL_AND,
	KERNEL_BOOL_OR,
	KERNEL_PAIR_INT4,
	KERNEL_PAIR_INT2,
	KERNEL_INT128_INT8,
	KERNEL_INT128_INT4,
	KERNEL_INT128_INT2,
	KERNEL_ROWS
} Kernel;

/* Live forms. */
typedef struct LiveValue /* VALUE */
{
	Datum value;
	bool isnull;
	bool no_value;
} LiveValue;

typedef struct LiveRef /* REF, SERIAL */
{
	LiveValue v;
	void *image; /* between save_size and save: what is saved */
	Size image_size;
} LiveRef;

typedef struct LivePair
{
	int64 count;
	int64 sum;
} LivePair;

typedef struct LiveRows
{
	char *data; /* in cxt, NULL: none yet */
	Size used;
	Size size;
	Size unique; /* prefix without two equal rows */
} LiveRows;

#ifdef HAVE_INT128
/* What the self-test expects of the server's Int128AggState. */
typedef struct Int128State
{
	bool calc_sum_x2;
	int64 n;
	int128 sum_x;
	int128 sum_x2;
} Int128State;

typedef struct LiveInt128
{
	Int128State s;
	bool isnull; /* no row yet: the server has a NULL state */
} LiveInt128;

#define INT128_SIZE 48
StaticAssertDecl(sizeof(Int128State) == INT128_SIZE, "Int128AggState is flat");
#else
#define INT128_SIZE 48
#endif

/* One sort column of DISTINCT or ORDER BY. */
typedef struct SortColumn
{
	int column; /* 0-based argument */
	SortSupportData ssup;
	bool distinct;
	FmgrInfo equal;
	Oid equal_collation;
} SortColumn;

/* A distinct transition state. */
typedef struct Trans
{
	Rep rep;
	Kernel kernel;
	AggStatePerTrans pertrans; /* what the server's functions may look at */
	FunctionCallInfo fcinfo;
	bool strict;
	int nargs; /* columns of the aggregate's args */
	int ncall; /* of them passed to the transition function */
	AttrNumber *attnos;
	AttrNumber filter;
	int16 len; /* of the transition type */
	bool byval;
	Datum init;
	bool init_null;
	bool read_only; /* no final function may change the state */
	bool serial_ok;
	Oid combinefn_oid; /* invalid: not to be called */
	FmgrInfo combinefn;
	FunctionCallInfo combinefn_fcinfo;
	bool may_combine;	 /* to merge two states by it is sound */
	bool combine_loaded; /* SERIAL: with none, to get one that can go on */
	Size live;			 /* offset in the live block */
	Size fixed;			 /* offset in saved bytes, if fixed */
	Size fixed_size;	 /* 0: variable */

	/* ROWS */
	TupleDesc row_desc;
	Size row_data;	 /* offset of the columns in a row */
	bool numbered;	 /* rows have their number, 8 bytes before the columns */
	bool only_first; /* of the rows only the first counts */
	bool is_distinct;
	int nsort;
	SortColumn *sort;

	/* during one weir_aggs_final */
	LiveRef final;

	/* dumps; made at first use: of the transition type, or a row's columns, or
	 * the value of first() and last() */
	WeirTypeIO *io;
	bool first_last;
} Trans;

/* An aggregate of the query. */
typedef struct Agg1
{
	AggStatePerAgg peragg;
	int trans;
	int same;				 /* an earlier, identical aggregate, or -1 */
	FunctionCallInfo fcinfo; /* of the final function, or NULL */
	bool result_byval;
	int16 result_len;
	List *direct; /* ExprStates */
} Agg1;

struct WeirAggs
{
	MemoryContext cxt;
	bool merged; /* states must be fit for weir_aggs_merge */
	int naggs;
	Agg1 *aggs;
	int ntrans;
	Trans *trans;
	Size live_size;
	Size fixed_size; /* bits and fixed part */

	AggState *state;	  /* the dummy */
	ExprContext *advance; /* stands for the caller's context */
	ExprContext *final;	  /* states while they are finalised */
	ExprContext *temp;	  /* one call of a transition function */
	ExprContext *direct;  /* direct arguments */
	MemoryContext work;	  /* one final function */
};

#define LIVE(t, live, type) ((type *) ((char *) (live) + (t)->live))

/* ---- creation ---- */

static void
check_execute(Oid function, Oid role, ObjectType type)
{
	AclResult result = weir_proc_aclcheck(function, role, ACL_EXECUTE);

	if (result != ACLCHECK_OK)
		aclcheck_error(result, type, get_func_name(function));
	InvokeFunctionExecuteHook(function);
}

static bool
same_ints(const AttrNumber *a, const AttrNumber *b, int n)
{
	return n == 0 || memcmp(a, b, n * sizeof(AttrNumber)) == 0;
}

/* Same input, so that a state may serve both? */
static bool
same_input(const WeirAggSpec *a, const WeirAggSpec *b)
{
	const Aggref *x = a->aggref;
	const Aggref *y = b->aggref;
	ListCell *lx;
	ListCell *ly;

	if (x->inputcollid != y->inputcollid || x->aggstar != y->aggstar ||
		x->aggvariadic != y->aggvariadic || x->aggkind != y->aggkind ||
		a->nargs != b->nargs || a->filter_attno != b->filter_attno ||
		!same_ints(a->arg_attno, b->arg_attno, a->nargs) ||
		!equal(x->aggorder, y->aggorder) ||
		!equal(x->aggdistinct, y->aggdistinct))
		return false;
	forboth(lx, x->args, ly, y->args)
	{
		TargetEntry *p = lfirst(lx);
		TargetEntry *q = lfirst(ly);

		if (p->resjunk != q->resjunk ||
			p->ressortgroupref != q->ressortgroupref ||
			exprType((Node *) p->expr) != exprType((Node *) q->expr))
			return false;
	}
	return true;
}

/*
 * The serial form of a polymorphic aggregate can only hold values as their
 * type's send function writes them (array_agg since 16 does that), and what
 * that writes is not fit to be kept: text goes by the client's encoding, an
 * enum by its label, a row by its type's columns of the day.
 */
static bool
is_polymorphic(Oid aggregate)
{
	Oid *types;
	int ntypes;
	bool result = false;

	(void) get_func_signature(aggregate, &types, &ntypes);
	for (int i = 0; i < ntypes; i++)
		if (IsPolymorphicType(types[i]) || types[i] == ANYOID)
			result = true;
	pfree(types);
	return result;
}

/*
 * Does the server's int8_avg_accum family keep its state as we think?  Tried
 * with the function itself: in a struct of its own making, and in a copy of
 * it, as we use it.
 */
static bool
int128_layout_holds(WeirAggs *aggs, Trans *t)
{
#ifdef HAVE_INT128
	Oid function = t->pertrans->transfn_oid;
	bool squares = function != F_INT8_AVG_ACCUM;
	int64 big = function == F_INT8_AVG_ACCUM ? PG_INT64_MAX
				: function == F_INT4_ACCUM	 ? PG_INT32_MAX
											 : PG_INT16_MAX;
	int64 inputs[] = {5, -7, 0, big, big};
	FunctionCallInfo fcinfo = t->fcinfo;
	Int128State expected = {0};
	Int128State copy;
	void *place = NULL;
	MemoryContext old;
	bool holds = true;

	expected.calc_sum_x2 = squares;
	aggs->state->curaggcontext = aggs->final;
	aggs->state->curpertrans = t->pertrans;
	old = MemoryContextSwitchTo(aggs->temp->ecxt_per_tuple_memory);
	for (int i = 0; i < lengthof(inputs) && holds; i++)
	{
		bool isnull = i == 2;
		Datum arg;

		if (function == F_INT8_AVG_ACCUM)
			arg = Int64GetDatum(inputs[i]);
		else if (function == F_INT4_ACCUM)
			arg = Int32GetDatum((int32) inputs[i]);
		else
			arg = Int16GetDatum((int16) inputs[i]);
		fcinfo->args[0].value = PointerGetDatum(place);
		fcinfo->args[0].isnull = place == NULL;
		fcinfo->args[1].value = arg;
		fcinfo->args[1].isnull = isnull;
		fcinfo->isnull = false;
		arg = FunctionCallInvoke(fcinfo);
		if (!isnull)
		{
			expected.n++;
			expected.sum_x += inputs[i];
			if (squares)
				expected.sum_x2 += (int128) inputs[i] * inputs[i];
		}
		if (i == 0)
		{
			if (fcinfo->isnull || DatumGetPointer(arg) == NULL ||
				GetMemoryChunkSpace(DatumGetPointer(arg)) < INT128_SIZE)
				holds = false;
			else
			{
				memcpy(&copy, DatumGetPointer(arg), INT128_SIZE);
				place = &copy;
			}
		}
		else if (DatumGetPointer(arg) != place)
			holds = false;
		if (holds && (*(uint8 *) &copy.calc_sum_x2 != (squares ? 1 : 0) ||
					  copy.n != expected.n || copy.sum_x != expected.sum_x ||
					  copy.sum_x2 != expected.sum_x2))
			holds = false;
	}
	MemoryContextSwitchTo(old);
	aggs->state->curpertrans = NULL;
	ReScanExprContext(aggs->final);
	ReScanExprContext(aggs->temp);
	return holds;
#else
	return false;
#endif
}

/* The initial value as int8[2]?  Then the state can go without the array. */
static bool
is_pair(const Trans *t)
{
	ArrayType *a;

	if (t->init_null)
		return false;
	a = DatumGetArrayTypeP(t->init);
	return ARR_NDIM(a) == 1 && !ARR_HASNULL(a) && ARR_ELEMTYPE(a) == INT8OID &&
		   ARR_DIMS(a)[0] == 2 &&
		   VARSIZE(a) == ARR_OVERHEAD_NONULLS(1) + sizeof(LivePair);
}

static Kernel
by_value_kernel(Oid function, bool init_null)
{
	switch (function)
	{
#ifdef USE_FLOAT8_BYVAL
			/* without an initial value, the first argument becomes the state */
		case F_INT8INC:
			return init_null ? KERNEL_CALL : KERNEL_COUNT;
		case F_INT8INC_ANY:
			return init_null ? KERNEL_CALL : KERNEL_COUNT_ANY;
		case F_INT4_SUM:
			return KERNEL_SUM_INT4;
		case F_INT2_SUM:
			return KERNEL_SUM_INT2;
		case F_INT8LARGER:
		case F_TIMESTAMP_LARGER:
		case F_TIMESTAMPTZ_LARGER:
			return KERNEL_MAX_INT8;
		case F_INT8SMALLER:
		case F_TIMESTAMP_SMALLER:
		case F_TIMESTAMPTZ_SMALLER:
			return KERNEL_MIN_INT8;
		case F_FLOAT8PL:
			return KERNEL_SUM_FLOAT8;
		case F_FLOAT8LARGER:
			return KERNEL_MAX_FLOAT8;
		case F_FLOAT8SMALLER:
			return KERNEL_MIN_FLOAT8;
#endif
		case F_INT4LARGER:
		case F_DATE_LARGER:
			return KERNEL_MAX_INT4;
		case F_INT4SMALLER:
		case F_DATE_SMALLER:
			return KERNEL_MIN_INT4;
		case F_INT2LARGER:
			return KERNEL_MAX_INT2;
		case F_INT2SMALLER:
			return KERNEL_MIN_INT2;
		case F_BOOLAND_STATEFUNC:
			return KERNEL_BOOL_AND;
		case F_BOOLOR_STATEFUNC:
			return KERNEL_BOOL_OR;
		default:
			return KERNEL_CALL;
	}
}

/*
 * Can two states be merged as they are?  By the kernel, if the initial value
 * of one of them does no harm, or by the combine function (only of an aggregate
 * of the server, of which is known what it does).
 */
static bool
is_mergeable(const Trans *t)
{
	switch (t->kernel)
	{
		case KERNEL_CALL:
			return t->may_combine;
		case KERNEL_COUNT:
		case KERNEL_COUNT_ANY:
		case KERNEL_SUM_INT4:
		case KERNEL_SUM_INT2:
			return t->init_null || DatumGetInt64(t->init) == 0;
		case KERNEL_SUM_FLOAT8:
			return t->init_null || DatumGetFloat8(t->init) == 0;
		case KERNEL_MAX_INT8:
		case KERNEL_MIN_INT8:
		case KERNEL_MAX_INT4:
		case KERNEL_MIN_INT4:
		case KERNEL_MAX_INT2:
		case KERNEL_MIN_INT2:
		case KERNEL_MAX_FLOAT8:
		case KERNEL_MIN_FLOAT8:
		case KERNEL_BOOL_AND:
		case KERNEL_BOOL_OR:
			return true;
		case KERNEL_PAIR_INT4:
		case KERNEL_PAIR_INT2:
		{
			LivePair pair;

			memcpy(&pair, ARR_DATA_PTR((ArrayType *) DatumGetPointer(t->init)),
				   sizeof(pair));
			return pair.count == 0 && pair.sum == 0;
		}
		case KERNEL_INT128_INT8:
		case KERNEL_INT128_INT4:
		case KERNEL_INT128_INT2:
			return true;
		case KERNEL_ROWS:
			break;
	}
	return false;
}

static void
choose_rep(WeirAggs *aggs, Trans *t)
{
	AggStatePerTrans p = t->pertrans;
	Oid function = p->transfn_oid;

	t->kernel = KERNEL_CALL;
	if (p->aggref->aggkind != AGGKIND_NORMAL || p->aggref->aggorder != NIL ||
		p->aggref->aggdistinct != NIL)
		t->rep = REP_ROWS;
	else if (p->aggtranstype == INTERNALOID)
	{
		if ((function == F_INT8_AVG_ACCUM || function == F_INT4_ACCUM ||
			 function == F_INT2_ACCUM) &&
			int128_layout_holds(aggs, t))
		{
			t->rep = REP_INT128;
			t->kernel = function == F_INT8_AVG_ACCUM ? KERNEL_INT128_INT8
						: function == F_INT4_ACCUM	 ? KERNEL_INT128_INT4
													 : KERNEL_INT128_INT2;
		}
		else
			t->rep = t->serial_ok ? REP_SERIAL : REP_ROWS;
	}
	else if (t->byval)
	{
		t->rep = REP_VALUE;
		t->kernel = by_value_kernel(function, t->init_null);
	}
	else if ((function == F_INT4_AVG_ACCUM || function == F_INT2_AVG_ACCUM) &&
			 is_pair(t))
	{
		t->rep = REP_PAIR;
		t->kernel =
			function == F_INT4_AVG_ACCUM ? KERNEL_PAIR_INT4 : KERNEL_PAIR_INT2;
	}
	else
		t->rep = REP_REF;
	if (aggs->merged && !is_mergeable(t))
		t->rep = REP_ROWS;
	if (t->rep == REP_ROWS)
		t->kernel = KERNEL_ROWS;
}

/* Descriptor of the kept rows, and how they are sorted. */
static void
init_rows(WeirAggs *aggs, Trans *t)
{
	Aggref *aggref = t->pertrans->aggref;
	List *sort = NIL;
	int ndistinct = 0;
	int i = 0;
	ListCell *lc;

	t->row_desc = CreateTemplateTupleDesc(t->nargs);
	foreach(lc, aggref->args)
	{
		TargetEntry *tle = lfirst(lc);

		TupleDescInitEntry(t->row_desc, ++i, NULL, exprType((Node *) tle->expr),
						   exprTypmod((Node *) tle->expr), 0);
		TupleDescInitEntryCollation(t->row_desc, i,
									exprCollation((Node *) tle->expr));
	}
	t->row_data = MAXALIGN(sizeof(uint32) + BITMAPLEN(t->nargs));
	if (aggs->merged)
	{
		t->numbered = true;
		t->row_data += sizeof(uint64);
	}

	/* ordered-set functions sort for themselves */
	if (aggref->aggkind != AGGKIND_NORMAL)
		return;
	if (aggref->aggdistinct != NIL)
	{
		sort = aggref->aggdistinct;
		ndistinct = list_length(sort);
		Assert(ndistinct >= list_length(aggref->aggorder));
	}
	else
		sort = aggref->aggorder;
	t->is_distinct = ndistinct > 0;
	t->nsort = list_length(sort);
	t->only_first = t->numbered && t->nsort == 0 && t->strict &&
					t->pertrans->transfn_oid == F_ANY_VALUE_TRANSFN;
	t->sort = palloc0(Max(t->nsort, 1) * sizeof(SortColumn));
	i = 0;
	foreach(lc, sort)
	{
		SortGroupClause *clause = lfirst(lc);
		TargetEntry *tle = get_sortgroupclause_tle(clause, aggref->args);
		SortColumn *c = &t->sort[i++];

		c->column = tle->resno - 1;
		c->ssup.ssup_cxt = aggs->cxt;
		c->ssup.ssup_collation = exprCollation((Node *) tle->expr);
		c->ssup.ssup_nulls_first = clause->nulls_first;
		c->ssup.ssup_attno = tle->resno;
		PrepareSortSupportFromOrderingOp(clause->sortop, &c->ssup);
		if (t->is_distinct)
		{
			c->distinct = true;
			fmgr_info(get_opcode(clause->eqop), &c->equal);
			c->equal_collation =
				ndistinct == 1 ? aggref->inputcollid : c->ssup.ssup_collation;
		}
	}
}

/*
 * May states be merged by the aggregate's combine function?  Not if the result
 * goes by the order of rows: string_agg and array_agg (which have no serial form
 * in here) and any_value, which the standard lets off, but which is steady all
 * the same.
 */
static bool
may_combine(const Trans *t, const Aggref *aggref, Form_pg_aggregate form)
{
	if (aggref->aggfnoid >= FirstUnpinnedObjectId ||
		!OidIsValid(form->aggcombinefn) ||
		(t->pertrans->aggtranstype == INTERNALOID && !t->serial_ok))
		return false;
	return form->aggtransfn != F_STRING_AGG_TRANSFN &&
		   form->aggtransfn != F_BYTEA_STRING_AGG_TRANSFN &&
		   form->aggtransfn != F_ANY_VALUE_TRANSFN;
}

static void
init_combine(WeirAggs *aggs, Trans *t, Oid function, Oid owner)
{
	AggStatePerTrans p = t->pertrans;
	Oid states[2] = {p->aggtranstype, p->aggtranstype};
	Expr *expr;

	t->combinefn_oid = function;
	check_execute(function, owner, OBJECT_FUNCTION);
	build_aggregate_transfn_expr(states, 2, 0, false, p->aggtranstype,
								 p->aggCollation, function, InvalidOid, &expr,
								 NULL);
	fmgr_info(function, &t->combinefn);
	fmgr_info_set_expr((Node *) expr, &t->combinefn);
	t->combinefn_fcinfo = palloc0(SizeForFunctionCallInfo(2));
	InitFunctionCallInfoData(*t->combinefn_fcinfo, &t->combinefn, 2,
							 p->aggCollation, (fmNodePtr) aggs->state, NULL);
}

static void
init_trans(WeirAggs *aggs, Trans *t, const WeirAggSpec *spec, Aggref *aggref,
		   Form_pg_aggregate form, Oid owner, Oid transtype, Datum init,
		   bool init_null)
{
	AggStatePerTrans p = t->pertrans;
	Oid types[FUNC_MAX_ARGS];
	int ntypes = get_aggregate_argtypes(aggref, types);
	int ndirect = list_length(aggref->aggdirectargs);
	Expr *expr;

	t->nargs = spec->nargs;
	t->ncall = aggref->aggkind == AGGKIND_NORMAL ? ntypes : spec->nargs;
	Assert(t->nargs == list_length(aggref->args));
	t->attnos = palloc(Max(t->nargs, 1) * sizeof(AttrNumber));
	memcpy(t->attnos, spec->arg_attno, t->nargs * sizeof(AttrNumber));
	t->filter = spec->filter_attno;
	get_typlenbyval(transtype, &t->len, &t->byval);
	t->init = init;
	t->init_null = init_null;
	t->read_only = true;

	p->aggref = aggref;
	p->numInputs = t->nargs;
	p->numTransInputs = t->ncall;
	p->transfn_oid = form->aggtransfn;
	p->serialfn_oid = InvalidOid;
	p->deserialfn_oid = InvalidOid;
	p->aggtranstype = transtype;
	p->aggCollation = aggref->inputcollid;
	p->initValue = init;
	p->initValueIsNull = init_null;
	p->transtypeLen = t->len;
	p->transtypeByVal = t->byval;

	check_execute(p->transfn_oid, owner, OBJECT_FUNCTION);
	build_aggregate_transfn_expr(types, ntypes, ndirect, aggref->aggvariadic,
								 transtype, aggref->inputcollid, p->transfn_oid,
								 InvalidOid, &expr, NULL);
	fmgr_info(p->transfn_oid, &p->transfn);
	fmgr_info_set_expr((Node *) expr, &p->transfn);
	t->strict = p->transfn.fn_strict;
	t->fcinfo = palloc0(SizeForFunctionCallInfo(t->ncall + 1));
	InitFunctionCallInfoData(*t->fcinfo, &p->transfn, t->ncall + 1,
							 p->aggCollation, (fmNodePtr) aggs->state, NULL);
	p->transfn_fcinfo = t->fcinfo;

	/* as at creation of the aggregate; a function may since have changed */
	if (t->strict && init_null &&
		(ntypes <= ndirect || !IsBinaryCoercible(types[ndirect], transtype)))
		ereport(
			ERROR,
			(errcode(ERRCODE_INVALID_FUNCTION_DEFINITION),
			 errmsg(
				 "aggregate %u needs to have compatible input type and transition type",
				 aggref->aggfnoid)));

	/* string_agg has serialize functions since 16; rows are of no version */
	if (transtype == INTERNALOID && OidIsValid(form->aggserialfn) &&
		OidIsValid(form->aggdeserialfn) && OidIsValid(form->aggcombinefn) &&
		!func_strict(form->aggcombinefn) && !is_polymorphic(aggref->aggfnoid) &&
		form->aggtransfn != F_STRING_AGG_TRANSFN &&
		form->aggtransfn != F_BYTEA_STRING_AGG_TRANSFN)
	{
		t->serial_ok = true;
		p->serialfn_oid = form->aggserialfn;
		p->deserialfn_oid = form->aggdeserialfn;
		check_execute(p->serialfn_oid, owner, OBJECT_FUNCTION);
		check_execute(p->deserialfn_oid, owner, OBJECT_FUNCTION);
		build_aggregate_serialfn_expr(p->serialfn_oid, &expr);
		fmgr_info(p->serialfn_oid, &p->serialfn);
		fmgr_info_set_expr((Node *) expr, &p->serialfn);
		p->serialfn_fcinfo = palloc0(SizeForFunctionCallInfo(1));
		InitFunctionCallInfoData(*p->serialfn_fcinfo, &p->serialfn, 1,
								 InvalidOid, (fmNodePtr) aggs->state, NULL);
		build_aggregate_deserialfn_expr(p->deserialfn_oid, &expr);
		fmgr_info(p->deserialfn_oid, &p->deserialfn);
		fmgr_info_set_expr((Node *) expr, &p->deserialfn);
		p->deserialfn_fcinfo = palloc0(SizeForFunctionCallInfo(2));
		InitFunctionCallInfoData(*p->deserialfn_fcinfo, &p->deserialfn, 2,
								 InvalidOid, (fmNodePtr) aggs->state, NULL);

		/* sum and avg have no squares */
		t->combine_loaded = p->deserialfn_oid != F_NUMERIC_AVG_DESERIALIZE &&
							p->deserialfn_oid != F_INT8_AVG_DESERIALIZE;
	}
	t->may_combine = aggs->merged && may_combine(t, aggref, form);
	if (t->combine_loaded || t->may_combine)
		init_combine(aggs, t, form->aggcombinefn, owner);

	choose_rep(aggs, t);
	if (t->rep == REP_ROWS)
		init_rows(aggs, t);
}

static void
init_agg(WeirAggs *aggs, Agg1 *a, Aggref *aggref, Form_pg_aggregate form,
		 Oid owner, Oid transtype)
{
	AggStatePerAgg p = a->peragg;
	Oid types[FUNC_MAX_ARGS];
	int ntypes = get_aggregate_argtypes(aggref, types);
	int ndirect = list_length(aggref->aggdirectargs);
	ListCell *lc;

	p->aggref = aggref;
	p->transno = a->trans;
	p->finalfn_oid = form->aggfinalfn;
	p->numFinalArgs = form->aggfinalextra ? ntypes + 1 : ndirect + 1;
	get_typlenbyval(aggref->aggtype, &p->resulttypeLen, &p->resulttypeByVal);
	p->shareable = form->aggfinalmodify != AGGMODIFY_READ_WRITE;
	a->result_len = p->resulttypeLen;
	a->result_byval = p->resulttypeByVal;
	a->direct = NIL;
	foreach(lc, aggref->aggdirectargs)
		a->direct = lappend(
			a->direct,
			ExecInitExpr(expression_planner(copyObject((Expr *) lfirst(lc))),
						 NULL));
	p->aggdirectargs = a->direct;
	if (form->aggfinalmodify != AGGMODIFY_READ_ONLY)
		aggs->trans[a->trans].read_only = false;
	if (OidIsValid(p->finalfn_oid))
	{
		Expr *expr;

		check_execute(p->finalfn_oid, owner, OBJECT_FUNCTION);
		build_aggregate_finalfn_expr(types, p->numFinalArgs, transtype,
									 aggref->aggtype, aggref->inputcollid,
									 p->finalfn_oid, &expr);
		fmgr_info(p->finalfn_oid, &p->finalfn);
		fmgr_info_set_expr((Node *) expr, &p->finalfn);
		a->fcinfo = palloc0(SizeForFunctionCallInfo(p->numFinalArgs));
		InitFunctionCallInfoData(*a->fcinfo, &p->finalfn, p->numFinalArgs,
								 aggref->inputcollid, (fmNodePtr) aggs->state,
								 NULL);
	}
}

static Datum
initial_value(HeapTuple tuple, Oid transtype, bool *isnull)
{
	Datum initval =
		SysCacheGetAttr(AGGFNOID, tuple, Anum_pg_aggregate_agginitval, isnull);
	Oid input;
	Oid param;
	char *string;
	Datum value;

	if (*isnull)
		return (Datum) 0;
	getTypeInputInfo(transtype, &input, &param);
	string = TextDatumGetCString(initval);
	value = OidInputFunctionCall(input, string, param, -1);
	pfree(string);
	return value;
}

/*
 * A state an earlier aggregate has that can serve this one too, or -1; and the
 * earlier aggregate that is the very same.
 */
static int
find_trans(WeirAggs *aggs, List *specs, int i, Form_pg_aggregate form,
		   Oid transtype, Datum init, bool init_null, int *same)
{
	const WeirAggSpec *spec = list_nth(specs, i);

	*same = -1;
	for (int k = 0; k < i; k++)
	{
		const WeirAggSpec *other = list_nth(specs, k);
		Agg1 *a = &aggs->aggs[k];
		Trans *t = &aggs->trans[a->trans];
		AggStatePerTrans p = t->pertrans;

		if (!same_input(spec, other))
			continue;
		if (spec->aggref->aggfnoid == other->aggref->aggfnoid &&
			spec->aggref->aggtype == other->aggref->aggtype &&
			spec->aggref->aggcollid == other->aggref->aggcollid &&
			equal(spec->aggref->aggdirectargs, other->aggref->aggdirectargs))
		{
			*same = k;
			return a->trans;
		}
		if (form->aggfinalmodify != AGGMODIFY_READ_WRITE &&
			a->peragg->shareable && p->transfn_oid == form->aggtransfn &&
			p->aggtranstype == transtype &&
			(transtype != INTERNALOID ||
			 (p->serialfn_oid == form->aggserialfn &&
			  p->deserialfn_oid == form->aggdeserialfn &&
			  (!OidIsValid(t->combinefn_oid) ||
			   t->combinefn_oid == form->aggcombinefn))) &&
			t->init_null == init_null &&
			(init_null || datumIsEqual(t->init, init, t->byval, t->len)))
			return a->trans;
	}
	return -1;
}

static void
layout_offsets(WeirAggs *aggs)
{
	aggs->live_size = 0;
	aggs->fixed_size = MAXALIGN((2 * aggs->ntrans + 7) / 8);
	for (int i = 0; i < aggs->ntrans; i++)
	{
		Trans *t = &aggs->trans[i];
		Size live = sizeof(LiveRef);

		t->fixed_size = 0;
		switch (t->rep)
		{
			case REP_VALUE:
				live = sizeof(LiveValue);
				t->fixed_size = sizeof(uint64);
				break;
			case REP_REF:
				if (t->len > 0)
					t->fixed_size = MAXALIGN(t->len);
				break;
			case REP_PAIR:
				live = sizeof(LivePair);
				t->fixed_size = sizeof(LivePair);
				break;
			case REP_INT128:
#ifdef HAVE_INT128
				live = sizeof(LiveInt128);
#endif
				t->fixed_size = INT128_SIZE;
				break;
			case REP_SERIAL:
				break;
			case REP_ROWS:
				live = sizeof(LiveRows);
				break;
		}
		t->live = aggs->live_size;
		aggs->live_size += MAXALIGN(live);
		t->fixed = aggs->fixed_size;
		aggs->fixed_size += t->fixed_size;
	}
}

WeirAggs *
weir_aggs_create(List *specs, EState *estate, bool merged)
{
	MemoryContext cxt;
	MemoryContext old;
	WeirAggs *aggs;
	AggState *state;
	int n = list_length(specs);

	cxt = AllocSetContextCreate(CurrentMemoryContext, "weir aggregates",
								ALLOCSET_DEFAULT_SIZES);
	old = MemoryContextSwitchTo(cxt);
	aggs = palloc0(sizeof(WeirAggs));
	aggs->cxt = cxt;
	aggs->merged = merged;
	aggs->naggs = n;
	aggs->aggs = palloc0(Max(n, 1) * sizeof(Agg1));
	aggs->trans = palloc0(Max(n, 1) * sizeof(Trans));
	aggs->advance = makeNode(ExprContext);
	aggs->advance->ecxt_per_query_memory = cxt;
	aggs->final = CreateStandaloneExprContext();
	aggs->temp = CreateStandaloneExprContext();
	aggs->direct = CreateStandaloneExprContext();
	aggs->work = AllocSetContextCreate(cxt, "weir final functions",
									   ALLOCSET_DEFAULT_SIZES);

	aggs->state = state = makeNode(AggState);
	state->ss.ps.state = estate;
	state->ss.ps.ps_ExprContext = aggs->direct;
	state->numaggs = n;
	state->maxsets = 1;
	state->peragg = palloc0(Max(n, 1) * sizeof(AggStatePerAggData));
	state->pertrans = palloc0(Max(n, 1) * sizeof(AggStatePerTransData));
	state->aggcontexts = palloc0(sizeof(ExprContext *));
	state->aggcontexts[0] = aggs->final;
	state->curaggcontext = aggs->final;
	state->tmpcontext = aggs->temp;

	for (int i = 0; i < n; i++)
	{
		const WeirAggSpec *spec = list_nth(specs, i);
		Aggref *aggref = copyObject(spec->aggref);
		Agg1 *a = &aggs->aggs[i];
		Oid types[FUNC_MAX_ARGS];
		int ntypes;
		HeapTuple tuple;
		HeapTuple proc;
		Form_pg_aggregate form;
		Oid owner;
		Oid transtype;
		Datum init;
		bool init_null;

		tuple = SearchSysCache1(AGGFNOID, ObjectIdGetDatum(aggref->aggfnoid));
		if (!HeapTupleIsValid(tuple))
			elog(ERROR, "cache lookup failed for aggregate %u",
				 aggref->aggfnoid);
		form = (Form_pg_aggregate) GETSTRUCT(tuple);
		check_execute(aggref->aggfnoid, GetUserId(), OBJECT_AGGREGATE);
		proc = SearchSysCache1(PROCOID, ObjectIdGetDatum(aggref->aggfnoid));
		if (!HeapTupleIsValid(proc))
			elog(ERROR, "cache lookup failed for function %u",
				 aggref->aggfnoid);
		owner = ((Form_pg_proc) GETSTRUCT(proc))->proowner;
		ReleaseSysCache(proc);

		ntypes = get_aggregate_argtypes(aggref, types);
		transtype = resolve_aggregate_transtype(
			aggref->aggfnoid, form->aggtranstype, types, ntypes);
		aggref->aggtranstype = transtype;
		init = initial_value(tuple, transtype, &init_null);
		a->peragg = &state->peragg[i];
		a->trans = find_trans(aggs, specs, i, form, transtype, init, init_null,
							  &a->same);
		if (a->trans < 0)
		{
			a->trans = aggs->ntrans++;
			state->numtrans = aggs->ntrans;
			aggs->trans[a->trans].pertrans = &state->pertrans[a->trans];
			init_trans(aggs, &aggs->trans[a->trans], spec, aggref, form, owner,
					   transtype, init, init_null);
		}
		else if (a->same < 0)
			aggs->trans[a->trans].pertrans->aggshared = true;
		aggref->aggno = i;
		aggref->aggtransno = a->trans;
		init_agg(aggs, a, aggref, form, owner, transtype);
		state->aggs = lappend(state->aggs, aggref);
		ReleaseSysCache(tuple);
	}
	layout_offsets(aggs);
	MemoryContextSwitchTo(old);
	return aggs;
}

void
weir_aggs_free(WeirAggs *aggs)
{
	/* no callbacks: they are for states that have been left to their context */
	aggs->final->ecxt_callbacks = NULL;
	FreeExprContext(aggs->final, false);
	FreeExprContext(aggs->temp, false);
	FreeExprContext(aggs->direct, false);
	MemoryContextDelete(aggs->cxt);
}

List *
weir_aggs_types(const WeirAggs *aggs)
{
	List *types = NIL;

	for (int i = 0; i < aggs->ntrans; i++)
	{
		const Trans *t = &aggs->trans[i];
		Oid type = t->pertrans->aggtranstype;
		ListCell *lc;

		types = lappend_oid(types, type);
		if (t->rep != REP_ROWS && type != INTERNALOID && type != BYTEAOID)
			continue;
		foreach(lc, t->pertrans->aggref->args)
			types = lappend_oid(
				types, exprType((Node *) lfirst_node(TargetEntry, lc)->expr));
	}
	return types;
}

/* Does this function of the server write the same bytes in every version? */
static bool
is_steady(Oid serialfn)
{
	return WEIR_STEADY_NUMERIC_STATES &&
		   (serialfn == F_NUMERIC_AVG_SERIALIZE ||
			serialfn == F_NUMERIC_SERIALIZE ||
			serialfn == F_NUMERIC_POLY_SERIALIZE ||
			serialfn == F_INT8_AVG_SERIALIZE);
}

char *
weir_aggs_layout(const WeirAggs *aggs)
{
	StringInfoData buf;

	initStringInfo(&buf);
	appendStringInfoString(&buf, "v1");
	for (int i = 0; i < aggs->ntrans; i++)
	{
		const Trans *t = &aggs->trans[i];
		Oid function = t->pertrans->transfn_oid;
		const char *rep = NULL;
		ListCell *lc;
		bool first = true;

		switch (t->rep)
		{
			case REP_VALUE:
			case REP_REF:
				rep = "flat";
				break;
			case REP_PAIR:
				rep = "pair";
				break;
			case REP_INT128:
				rep = "int128";
				break;
			case REP_SERIAL:
				rep = is_steady(t->pertrans->serialfn_oid)
						  ? "serial"
						  : psprintf("serial of PostgreSQL %d",
									 WEIR_SERVER_MAJOR);
				break;
			case REP_ROWS:
				if (t->numbered)
					rep = t->is_distinct  ? "numbered distinct rows"
						  : t->only_first ? "first numbered row"
										  : "numbered rows";
				else
					rep = t->is_distinct ? "distinct rows" : "rows";
				break;
		}
		appendStringInfo(&buf, ";%s:%s(", rep,
						 quote_qualified_identifier(
							 get_namespace_name(get_func_namespace(function)),
							 get_func_name(function)));
		foreach(lc, t->pertrans->aggref->args)
		{
			TargetEntry *tle = lfirst(lc);

			appendStringInfo(
				&buf, "%s%s", first ? "" : ",",
				format_type_be_qualified(exprType((Node *) tle->expr)));
			first = false;
		}
		appendStringInfo(&buf, ")->%s",
						 format_type_be_qualified(t->pertrans->aggtranstype));
	}
	return buf.data;
}

/* ---- transition functions ---- */

/* Arrange that the callbacks a function registered run when cxt is reset. */
typedef struct Shutdown
{
	MemoryContextCallback callback;
	ExprContextCallbackFunction function;
	Datum arg;
} Shutdown;

static void
run_shutdown(void *arg)
{
	Shutdown *s = arg;

	s->function(s->arg);
}

static void
move_callbacks(ExprContext *econtext, MemoryContext cxt)
{
	ExprContext_CB *cb = econtext->ecxt_callbacks;
	ExprContext_CB *reversed = NULL;

	econtext->ecxt_callbacks = NULL;
	while (cb != NULL)
	{
		ExprContext_CB *next = cb->next;

		cb->next = reversed;
		reversed = cb;
		cb = next;
	}
	while (reversed != NULL)
	{
		ExprContext_CB *next = reversed->next;
		Shutdown *s = MemoryContextAlloc(cxt, sizeof(Shutdown));

		s->function = reversed->function;
		s->arg = reversed->arg;
		s->callback.func = run_shutdown;
		s->callback.arg = s;
		MemoryContextRegisterResetCallback(cxt, &s->callback);
		pfree(reversed);
		reversed = next;
	}
}

/*
 * The new state of a by-reference type: into cxt, unless it is an expanded
 * object that already lives there; the old one is freed.
 */
static Datum
keep_new_value(Trans *t, MemoryContext cxt, Datum value, bool isnull, Datum old,
			   bool old_null)
{
	if (isnull)
		value = (Datum) 0;
	else if (!(DatumIsReadWriteExpandedObject(value, false, t->len) &&
			   MemoryContextGetParent(DatumGetEOHP(value)->eoh_context) == cxt))
	{
		MemoryContext save = MemoryContextSwitchTo(cxt);

		value = datumCopy(value, false, t->len);
		MemoryContextSwitchTo(save);
	}
	if (!old_null)
	{
		if (DatumIsReadWriteExpandedObject(old, false, t->len))
			DeleteExpandedObject(old);
		else
			pfree(DatumGetPointer(old));
	}
	return value;
}

/*
 * Call the transition function on the arguments in t->fcinfo.  The state lives
 * in the memory of econtext, which is state->curaggcontext.
 */
static void
call_transition(WeirAggs *aggs, Trans *t, LiveValue *lv, ExprContext *econtext)
{
	FunctionCallInfo fcinfo = t->fcinfo;
	MemoryContext cxt = econtext->ecxt_per_tuple_memory;
	MemoryContext temp = aggs->temp->ecxt_per_tuple_memory;
	MemoryContext old;
	Datum value;

	if (t->strict)
	{
		for (int i = 1; i <= t->ncall; i++)
			if (fcinfo->args[i].isnull)
				return;
		if (lv->no_value)
		{
			old = MemoryContextSwitchTo(cxt);
			lv->value = datumCopy(fcinfo->args[1].value, t->byval, t->len);
			MemoryContextSwitchTo(old);
			lv->isnull = false;
			lv->no_value = false;
			return;
		}
		if (lv->isnull)
			return;
	}

	aggs->state->curaggcontext = econtext;
	aggs->state->curpertrans = t->pertrans;
	aggs->state->curperagg = NULL;
	old = MemoryContextSwitchTo(temp);
	fcinfo->args[0].value = lv->value;
	fcinfo->args[0].isnull = lv->isnull;
	fcinfo->isnull = false;
	value = FunctionCallInvoke(fcinfo);
	if (!t->byval && DatumGetPointer(value) != DatumGetPointer(lv->value))
		value = keep_new_value(t, cxt, value, fcinfo->isnull, lv->value,
							   lv->isnull);
	lv->value = value;
	lv->isnull = fcinfo->isnull;
	MemoryContextSwitchTo(old);
	aggs->state->curpertrans = NULL;
	MemoryContextReset(temp);
}

/* ---- rows ---- */

static void
rows_room(LiveRows *rows, MemoryContext cxt, Size more)
{
	Size size = Max(rows->size, 64);

	if (rows->used + more <= rows->size)
		return;
	while (size < rows->used + more)
		size *= 2;
	if (rows->used + more > MaxAllocSize / 2)
		ereport(
			ERROR,
			(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
			 errmsg("kept rows of an aggregate exceed %d MB in one group",
					(int) (MaxAllocSize / 2 / (1024 * 1024))),
			 errhint(
				 "Use shorter windows or finer groups, or an aggregate that need not keep its rows.")));
	if (rows->data == NULL)
		rows->data = MemoryContextAllocHuge(cxt, size);
	else
		rows->data = repalloc_huge(rows->data, size);
	rows->size = size;
}

static inline uint64
row_number(const Trans *t, const char *row)
{
	uint64 number;

	memcpy(&number, row + t->row_data - sizeof(number), sizeof(number));
	return number;
}

static inline void
set_row_number(const Trans *t, char *row, uint64 number)
{
	memcpy(row + t->row_data - sizeof(number), &number, sizeof(number));
}

/* Append a row of these columns, with nothing out of line. */
static void
row_add(const Trans *t, LiveRows *rows, MemoryContext cxt, Datum *values,
		bool *isnull, uint64 number)
{
	Size data = heap_compute_data_size(t->row_desc, values, isnull);
	Size size = t->row_data + MAXALIGN(data);
	uint16 infomask;
	char *row;

	rows_room(rows, cxt, size);
	row = rows->data + rows->used;
	memset(row, 0, size);
	*(uint32 *) row = size;
	if (t->numbered)
		set_row_number(t, row, number);
	if (t->nargs > 0)
		heap_fill_tuple(t->row_desc, values, isnull, row + t->row_data, data,
						&infomask, (bits8 *) row + sizeof(uint32));
	rows->used += size;
}

static void
rows_append(WeirAggs *aggs, Trans *t, LiveRows *rows, MemoryContext cxt,
			TupleTableSlot *input, uint64 ordinal)
{
	Datum *values;
	bool *isnull;
	MemoryContext old;

	/* a strict function would not see it; ORDER BY columns do not matter */
	if (t->strict)
		for (int i = 0; i < t->ncall; i++)
			if (input->tts_isnull[t->attnos[i] - 1])
				return;
	if (t->only_first && rows->used > 0)
	{
		if (row_number(t, rows->data) <= ordinal)
			return;
		rows->used = 0;
	}

	old = MemoryContextSwitchTo(aggs->temp->ecxt_per_tuple_memory);
	values = palloc(Max(t->nargs, 1) * sizeof(Datum));
	isnull = palloc(Max(t->nargs, 1) * sizeof(bool));
	for (int i = 0; i < t->nargs; i++)
	{
		values[i] = input->tts_values[t->attnos[i] - 1];
		isnull[i] = input->tts_isnull[t->attnos[i] - 1];
		if (!isnull[i] && TupleDescAttr(t->row_desc, i)->attlen == -1 &&
			VARATT_IS_EXTERNAL(DatumGetPointer(values[i])))
			values[i] = PointerGetDatum(
				detoast_attr((struct varlena *) DatumGetPointer(values[i])));
	}
	row_add(t, rows, cxt, values, isnull, ordinal);
	MemoryContextSwitchTo(old);
	MemoryContextReset(aggs->temp->ecxt_per_tuple_memory);
}

static Size
row_size(const Trans *t, const char *row, Size rest)
{
	uint32 size = rest >= sizeof(uint32) ? *(const uint32 *) row : 0;

	Ensure(size >= t->row_data && size <= rest && size == MAXALIGN(size),
		   "kept row of an aggregate has a wrong length");
	return size;
}

static void
row_deform(const Trans *t, const char *row, Datum *values, bool *isnull)
{
	const bits8 *bits = (const bits8 *) row + sizeof(uint32);
	const char *data = row + t->row_data;
	Size off = 0;

	for (int i = 0; i < t->nargs; i++)
	{
		Form_pg_attribute att = TupleDescAttr(t->row_desc, i);

		isnull[i] = att_isnull(i, bits);
		if (isnull[i])
		{
			values[i] = (Datum) 0;
			continue;
		}
		off = att_align_pointer(off, att->attalign, att->attlen, data + off);
		values[i] = fetch_att(data + off, att->attbyval, att->attlen);
		off = att_addlength_pointer(off, att->attlen, data + off);
	}
}

static uint32
row_hash(const Trans *t, const char *row, Size size)
{
	Size head = t->numbered ? t->row_data - sizeof(uint64) : t->row_data;

	return hash_combine(hash_bytes((const unsigned char *) row, head),
						hash_bytes((const unsigned char *) row + t->row_data,
								   size - t->row_data));
}

/* Equal but for their numbers?  (The size is in front.) */
static bool
row_same_image(const Trans *t, const char *a, const char *b, Size size)
{
	Size head = t->numbered ? t->row_data - sizeof(uint64) : t->row_data;

	return memcmp(a, b, head) == 0 &&
		   memcmp(a + t->row_data, b + t->row_data, size - t->row_data) == 0;
}

/*
 * DISTINCT: of rows with the same image only the first, in log order, can ever
 * be passed on.  Done when the rows have doubled, so it costs little a row.
 */
static void
rows_unique(const Trans *t, LiveRows *rows)
{
	Size nslots = 16;
	Size count = 0;
	Size out = 0;
	Size *slots;

	if (rows->used <= 2 * rows->unique + 1024)
		return;
	for (Size off = 0; off < rows->used;
		 off += row_size(t, rows->data + off, rows->used - off))
		count++;
	while (nslots < count * 2)
		nslots *= 2;
	slots = MemoryContextAllocHuge(CurrentMemoryContext, nslots * sizeof(Size));
	memset(slots, 0xff, nslots * sizeof(Size));
	for (Size off = 0, size; off < rows->used; off += size)
	{
		char *row = rows->data + off;
		Size h;

		size = row_size(t, row, rows->used - off);
		h = row_hash(t, row, size) & (nslots - 1);
		while (slots[h] != SIZE_MAX &&
			   !row_same_image(t, rows->data + slots[h], row, size))
			h = (h + 1) & (nslots - 1);
		if (slots[h] != SIZE_MAX)
		{
			char *kept = rows->data + slots[h];

			/* after a merge one that lies behind may be the earlier one */
			if (t->numbered && row_number(t, row) < row_number(t, kept))
				set_row_number(t, kept, row_number(t, row));
			continue;
		}
		slots[h] = out;
		if (out != off)
			memmove(rows->data + out, row, size);
		out += size;
	}
	pfree(slots);
	rows->used = rows->unique = out;
}

/* ---- live ---- */

Size
weir_aggs_live_size(const WeirAggs *aggs)
{
	return Max(aggs->live_size, MAXIMUM_ALIGNOF);
}

static void
start_value(Trans *t, LiveValue *lv, MemoryContext cxt)
{
	lv->isnull = t->init_null;
	lv->no_value = t->init_null;
	if (t->init_null || t->byval)
		lv->value = t->init;
	else
	{
		MemoryContext old = MemoryContextSwitchTo(cxt);

		lv->value = datumCopy(t->init, false, t->len);
		MemoryContextSwitchTo(old);
	}
}

void
weir_aggs_start(WeirAggs *aggs, void *live, MemoryContext cxt)
{
	memset(live, 0, aggs->live_size);
	for (int i = 0; i < aggs->ntrans; i++)
	{
		Trans *t = &aggs->trans[i];

		switch (t->rep)
		{
			case REP_VALUE:
			case REP_REF:
			case REP_SERIAL:
				start_value(t, LIVE(t, live, LiveValue), cxt);
				break;
			case REP_PAIR:
				memcpy(LIVE(t, live, LivePair),
					   ARR_DATA_PTR((ArrayType *) DatumGetPointer(t->init)),
					   sizeof(LivePair));
				break;
			case REP_INT128:
#ifdef HAVE_INT128
				LIVE(t, live, LiveInt128)->isnull = true;
				LIVE(t, live, LiveInt128)->s.calc_sum_x2 =
					t->kernel != KERNEL_INT128_INT8;
#endif
				break;
			case REP_ROWS:
				break;
		}
	}
}

static pg_noinline void
bigint_out_of_range(void)
{
	ereport(ERROR, (errcode(ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE),
					errmsg("bigint out of range")));
}

/*
 * The first lines of the kernels of strict functions: v is the argument, and
 * either it is null, or becomes the state, or meets one.
 */
#define STRICT_ARGUMENT()                      \
	Datum v;                                   \
	int a = t->attnos[0] - 1;                  \
                                               \
	if (isnull[a])                             \
		break;                                 \
	v = values[a];                             \
	if (unlikely(lv->isnull))                  \
	{                                          \
		if (lv->no_value)                      \
		{                                      \
			lv->value = v;                     \
			lv->isnull = lv->no_value = false; \
		}                                      \
		break;                                 \
	}

void
weir_aggs_advance(WeirAggs *aggs, void *live, MemoryContext cxt,
				  TupleTableSlot *input, uint64 ordinal)
{
	const Datum *values = input->tts_values;
	const bool *isnull = input->tts_isnull;

	for (int i = 0; i < aggs->ntrans; i++)
	{
		Trans *t = &aggs->trans[i];
		LiveValue *lv = LIVE(t, live, LiveValue);

		if (t->filter != 0 &&
			(isnull[t->filter - 1] || !DatumGetBool(values[t->filter - 1])))
			continue;

		switch (t->kernel)
		{
			case KERNEL_COUNT_ANY:
				if (isnull[t->attnos[0] - 1])
					break;
				/* FALLTHROUGH */
			case KERNEL_COUNT:
			{
				int64 n;

				if (unlikely(lv->isnull))
					break;
				if (unlikely(
						pg_add_s64_overflow(DatumGetInt64(lv->value), 1, &n)))
					bigint_out_of_range();
				lv->value = Int64GetDatum(n);
				break;
			}
			case KERNEL_SUM_INT4:
			case KERNEL_SUM_INT2:
			{
				int a = t->attnos[0] - 1;
				int64 v;

				if (isnull[a])
					break;
				v = t->kernel == KERNEL_SUM_INT4 ? DatumGetInt32(values[a])
												 : DatumGetInt16(values[a]);
				if (lv->isnull)
					lv->value = Int64GetDatum(v);
				else
					lv->value = Int64GetDatum(DatumGetInt64(lv->value) + v);
				lv->isnull = false;
				break;
			}
			case KERNEL_MAX_INT8:
			{
				STRICT_ARGUMENT();
				if (DatumGetInt64(v) > DatumGetInt64(lv->value))
					lv->value = v;
				break;
			}
			case KERNEL_MIN_INT8:
			{
				STRICT_ARGUMENT();
				if (DatumGetInt64(v) < DatumGetInt64(lv->value))
					lv->value = v;
				break;
			}
			case KERNEL_MAX_INT4:
			{
				STRICT_ARGUMENT();
				if (DatumGetInt32(v) > DatumGetInt32(lv->value))
					lv->value = v;
				break;
			}
			case KERNEL_MIN_INT4:
			{
				STRICT_ARGUMENT();
				if (DatumGetInt32(v) < DatumGetInt32(lv->value))
					lv->value = v;
				break;
			}
			case KERNEL_MAX_INT2:
			{
				STRICT_ARGUMENT();
				if (DatumGetInt16(v) > DatumGetInt16(lv->value))
					lv->value = v;
				break;
			}
			case KERNEL_MIN_INT2:
			{
				STRICT_ARGUMENT();
				if (DatumGetInt16(v) < DatumGetInt16(lv->value))
					lv->value = v;
				break;
			}
			case KERNEL_SUM_FLOAT8:
			{
				STRICT_ARGUMENT();
				lv->value = Float8GetDatum(
					float8_pl(DatumGetFloat8(lv->value), DatumGetFloat8(v)));
				break;
			}
			case KERNEL_MAX_FLOAT8:
			{
				STRICT_ARGUMENT();
				if (!float8_gt(DatumGetFloat8(lv->value), DatumGetFloat8(v)))
					lv->value = v;
				break;
			}
			case KERNEL_MIN_FLOAT8:
			{
				STRICT_ARGUMENT();
				if (!float8_lt(DatumGetFloat8(lv->value), DatumGetFloat8(v)))
					lv->value = v;
				break;
			}
			case KERNEL_BOOL_AND:
			{
				STRICT_ARGUMENT();
				if (!DatumGetBool(v))
					lv->value = v;
				break;
			}
			case KERNEL_BOOL_OR:
			{
				STRICT_ARGUMENT();
				if (DatumGetBool(v))
					lv->value = v;
				break;
			}
			case KERNEL_PAIR_INT4:
			case KERNEL_PAIR_INT2:
			{
				LivePair *pair = LIVE(t, live, LivePair);
				int a = t->attnos[0] - 1;

				if (isnull[a])
					break;
				pair->count++;
				pair->sum += t->kernel == KERNEL_PAIR_INT4
								 ? DatumGetInt32(values[a])
								 : DatumGetInt16(values[a]);
				break;
			}
#ifdef HAVE_INT128
			case KERNEL_INT128_INT8:
			{
				LiveInt128 *l = LIVE(t, live, LiveInt128);
				int a = t->attnos[0] - 1;

				l->isnull = false;
				if (isnull[a])
					break;
				l->s.n++;
				l->s.sum_x += DatumGetInt64(values[a]);
				break;
			}
			case KERNEL_INT128_INT4:
			case KERNEL_INT128_INT2:
			{
				LiveInt128 *l = LIVE(t, live, LiveInt128);
				int a = t->attnos[0] - 1;
				int64 v;

				l->isnull = false;
				if (isnull[a])
					break;
				v = t->kernel == KERNEL_INT128_INT4 ? DatumGetInt32(values[a])
													: DatumGetInt16(values[a]);
				l->s.n++;
				l->s.sum_x += v;
				l->s.sum_x2 += (int128) v * v;
				break;
			}
#else
			case KERNEL_INT128_INT8:
			case KERNEL_INT128_INT4:
			case KERNEL_INT128_INT2:
				break;
#endif
			case KERNEL_ROWS:
				rows_append(aggs, t, LIVE(t, live, LiveRows), cxt, input,
							ordinal);
				break;
			case KERNEL_CALL:
				for (int k = 0; k < t->ncall; k++)
				{
					int a = t->attnos[k] - 1;

					t->fcinfo->args[k + 1].value = values[a];
					t->fcinfo->args[k + 1].isnull = isnull[a];
				}
				aggs->advance->ecxt_per_tuple_memory = cxt;
				call_transition(aggs, t, lv, aggs->advance);
				if (unlikely(aggs->advance->ecxt_callbacks != NULL))
					move_callbacks(aggs->advance, cxt);
				break;
		}
	}
}

/* ---- save and load ---- */

/* What is stored of a non-null by-reference or serialised state. */
static void
make_image(WeirAggs *aggs, Trans *t, LiveRef *ref, MemoryContext cxt)
{
	char *value = DatumGetPointer(ref->v.value);

	if (t->rep == REP_SERIAL)
	{
		FunctionCallInfo fcinfo = t->pertrans->serialfn_fcinfo;
		MemoryContext temp = aggs->temp->ecxt_per_tuple_memory;
		MemoryContext old = MemoryContextSwitchTo(temp);
		Datum bytes;

		aggs->advance->ecxt_per_tuple_memory = cxt;
		aggs->state->curaggcontext = aggs->advance;
		aggs->state->curpertrans = t->pertrans;
		aggs->state->curperagg = NULL;
		fcinfo->args[0].value = ref->v.value;
		fcinfo->args[0].isnull = false;
		fcinfo->isnull = false;
		bytes = FunctionCallInvoke(fcinfo);
		if (fcinfo->isnull)
			elog(ERROR, "serialization function %u returned null",
				 t->pertrans->serialfn_oid);
		MemoryContextSwitchTo(cxt);
		ref->image = DatumGetPointer(datumCopy(bytes, false, -1));
		ref->image_size = VARSIZE_ANY(ref->image);
		MemoryContextSwitchTo(old);
		aggs->state->curpertrans = NULL;
		MemoryContextReset(temp);
		return;
	}

	ref->image = value;
	if (t->len == -1)
	{
		if (VARATT_IS_EXTERNAL(value))
		{
			MemoryContext old = MemoryContextSwitchTo(cxt);

			ref->image = detoast_external_attr((struct varlena *) value);
			MemoryContextSwitchTo(old);
		}
		ref->image_size = VARSIZE_ANY(ref->image);
	}
	else if (t->len == -2)
		ref->image_size = strlen(value) + 1;
	else
		ref->image_size = t->len;
}

Size
weir_aggs_save_size(WeirAggs *aggs, void *live, MemoryContext cxt)
{
	Size size = aggs->fixed_size;

	for (int i = 0; i < aggs->ntrans; i++)
	{
		Trans *t = &aggs->trans[i];

		if (t->rep == REP_REF || t->rep == REP_SERIAL)
		{
			LiveRef *ref = LIVE(t, live, LiveRef);

			if (ref->v.isnull)
				continue;
			make_image(aggs, t, ref, cxt);
			if (t->fixed_size == 0)
				size += sizeof(uint64) + MAXALIGN(ref->image_size);
		}
		else if (t->rep == REP_ROWS)
		{
			LiveRows *rows = LIVE(t, live, LiveRows);

			if (t->is_distinct)
				rows_unique(t, rows);
			size += 2 * sizeof(uint64) + rows->used;
		}
	}
	return size;
}

static inline void
put_uint64(char **to, uint64 value)
{
	memcpy(*to, &value, sizeof(value));
	*to += sizeof(value);
}

static void
put_padded(char **to, const void *from, Size size)
{
	memcpy(*to, from, size);
	memset(*to + size, 0, MAXALIGN(size) - size);
	*to += MAXALIGN(size);
}

void
weir_aggs_save(WeirAggs *aggs, void *live, char *dest)
{
	char *to = dest + aggs->fixed_size;

	memset(dest, 0, aggs->fixed_size);
	for (int i = 0; i < aggs->ntrans; i++)
	{
		Trans *t = &aggs->trans[i];
		LiveValue *lv = LIVE(t, live, LiveValue);
		char *fixed = dest + t->fixed;
		bool isnull = false;
		bool no_value = false;

		switch (t->rep)
		{
			case REP_VALUE:
				isnull = lv->isnull;
				no_value = lv->no_value;
				if (!isnull)
				{
					uint64 v = lv->value;

					memcpy(fixed, &v, sizeof(v));
				}
				break;
			case REP_REF:
			case REP_SERIAL:
			{
				LiveRef *ref = (LiveRef *) lv;

				isnull = lv->isnull;
				no_value = lv->no_value;
				if (isnull)
					break;
				if (t->fixed_size > 0)
					memcpy(fixed, ref->image, ref->image_size);
				else
				{
					put_uint64(&to, ref->image_size);
					put_padded(&to, ref->image, ref->image_size);
				}
				break;
			}
			case REP_PAIR:
				memcpy(fixed, lv, sizeof(LivePair));
				break;
			case REP_INT128:
#ifdef HAVE_INT128
			{
				LiveInt128 *l = (LiveInt128 *) lv;

				isnull = l->isnull;
				memcpy(fixed, &l->s, INT128_SIZE);
			}
#endif
			break;
			case REP_ROWS:
			{
				LiveRows *rows = (LiveRows *) lv;

				put_uint64(&to, sizeof(uint64) + rows->used);
				put_uint64(&to, rows->unique);
				if (rows->used > 0)
					memcpy(to, rows->data, rows->used);
				to += rows->used;
				break;
			}
		}
		if (isnull)
			dest[2 * i / 8] |= 1 << (2 * i % 8);
		if (no_value)
			dest[2 * i / 8] |= 2 << (2 * i % 8);
	}
}

/* Where load and final are in saved bytes. */
typedef struct Cursor
{
	const char *bytes;
	const char *at; /* variable part */
	const char *end;
} Cursor;

static void
cursor_start(const WeirAggs *aggs, Cursor *c, const char *bytes, Size len)
{
	Ensure(len >= aggs->fixed_size && len == MAXALIGN(len),
		   "saved aggregates have a wrong length");
	c->bytes = bytes;
	c->at = bytes + aggs->fixed_size;
	c->end = bytes + len;
}

static void
cursor_bits(const Cursor *c, int i, bool *isnull, bool *no_value)
{
	int bits = (unsigned char) c->bytes[2 * i / 8] >> (2 * i % 8);

	*isnull = bits & 1;
	*no_value = (bits & 2) != 0;
}

/* The next variable item. */
static const char *
cursor_next(Cursor *c, Size *size)
{
	const char *item = c->at + sizeof(uint64);
	uint64 stored;

	Ensure(c->end - c->at >= sizeof(uint64), "saved aggregates are truncated");
	memcpy(&stored, c->at, sizeof(stored));
	Ensure(stored <= c->end - item &&
			   MAXALIGN(stored) <= (Size) (c->end - item),
		   "saved aggregates are truncated");
	*size = stored;
	c->at = item + MAXALIGN(stored);
	return item;
}

/* A by-reference or serialised value where it lies. */
static const char *
cursor_ref(Cursor *c, const Trans *t)
{
	Size size;
	const char *item;

	if (t->fixed_size > 0)
		return c->bytes + t->fixed;
	item = cursor_next(c, &size);
	if (t->rep == REP_SERIAL || t->len == -1)
		Ensure(size > 0 && VARSIZE_ANY(item) == size,
			   "saved value of an aggregate has a wrong length");
	else
		Ensure(size > 0 && item[size - 1] == '\0',
			   "saved value of an aggregate has a wrong length");
	return item;
}

/* Kept rows where they lie. */
static const char *
cursor_rows(Cursor *c, Size *size, Size *unique)
{
	const char *item = cursor_next(c, size);
	uint64 stored;

	Ensure(*size >= sizeof(uint64), "kept rows of an aggregate are truncated");
	memcpy(&stored, item, sizeof(stored));
	*size -= sizeof(uint64);
	Ensure(stored <= *size, "kept rows of an aggregate are truncated");
	*unique = stored;
	return item + sizeof(uint64);
}

/*
 * In the current memory.  Unless it is of a kind that can go on as it is, it is
 * fit to be combined only.
 */
static Datum
deserialize(WeirAggs *aggs, Trans *t, const char *bytes, ExprContext *econtext)
{
	FunctionCallInfo fcinfo = t->pertrans->deserialfn_fcinfo;
	Datum value;

	aggs->state->curaggcontext = econtext;
	aggs->state->curpertrans = t->pertrans;
	aggs->state->curperagg = NULL;
	fcinfo->args[0].value = PointerGetDatum(bytes);
	fcinfo->args[0].isnull = false;
	fcinfo->args[1].value = PointerGetDatum(NULL);
	fcinfo->args[1].isnull = false;
	fcinfo->isnull = false;
	value = FunctionCallInvoke(fcinfo);
	if (fcinfo->isnull)
		elog(ERROR, "deserialization function %u returned null",
			 t->pertrans->deserialfn_oid);
	aggs->state->curpertrans = NULL;
	return value;
}

/*
 * Combine a non-null state into lv, which lives in the memory of econtext; the
 * current memory is short-lived.
 */
static void
combine(WeirAggs *aggs, Trans *t, LiveValue *lv, Datum state,
		ExprContext *econtext)
{
	FunctionCallInfo fcinfo = t->combinefn_fcinfo;
	MemoryContext cxt = econtext->ecxt_per_tuple_memory;
	Datum value;

	if (lv->isnull && t->combinefn.fn_strict)
	{
		if (lv->no_value)
		{
			MemoryContext old = MemoryContextSwitchTo(cxt);

			lv->value = datumCopy(state, t->byval, t->len);
			MemoryContextSwitchTo(old);
			lv->isnull = false;
			lv->no_value = false;
		}
		return;
	}
	aggs->state->curaggcontext = econtext;
	aggs->state->curpertrans = t->pertrans;
	aggs->state->curperagg = NULL;
	fcinfo->args[0].value = lv->value;
	fcinfo->args[0].isnull = lv->isnull;
	fcinfo->args[1].value = state;
	fcinfo->args[1].isnull = false;
	fcinfo->isnull = false;
	value = FunctionCallInvoke(fcinfo);
	if (!t->byval && DatumGetPointer(value) != DatumGetPointer(lv->value))
		value = keep_new_value(t, cxt, value, fcinfo->isnull, lv->value,
							   lv->isnull);
	lv->value = value;
	lv->isnull = fcinfo->isnull;
	lv->no_value = false;
	aggs->state->curpertrans = NULL;
}

/* In the memory of econtext, which becomes the aggregate context. */
static Datum
load_serial(WeirAggs *aggs, Trans *t, const char *bytes, ExprContext *econtext)
{
	MemoryContext temp = aggs->temp->ecxt_per_tuple_memory;
	MemoryContext old = MemoryContextSwitchTo(
		t->combine_loaded ? temp : econtext->ecxt_per_tuple_memory);
	Datum value = deserialize(aggs, t, bytes, econtext);

	if (t->combine_loaded)
	{
		LiveValue none = {.isnull = true};

		combine(aggs, t, &none, value, econtext);
		if (none.isnull)
			elog(ERROR, "combine function %u returned null", t->combinefn_oid);
		value = none.value;
		MemoryContextReset(temp);
	}
	MemoryContextSwitchTo(old);
	return value;
}

void
weir_aggs_load(WeirAggs *aggs, void *live, MemoryContext cxt, const char *bytes,
			   Size len)
{
	Cursor c;

	cursor_start(aggs, &c, bytes, len);
	memset(live, 0, aggs->live_size);
	for (int i = 0; i < aggs->ntrans; i++)
	{
		Trans *t = &aggs->trans[i];
		LiveValue *lv = LIVE(t, live, LiveValue);
		const char *fixed = bytes + t->fixed;
		bool isnull;
		bool no_value;

		cursor_bits(&c, i, &isnull, &no_value);
		switch (t->rep)
		{
			case REP_VALUE:
			{
				uint64 v;

				memcpy(&v, fixed, sizeof(v));
				lv->value = v;
				lv->isnull = isnull;
				lv->no_value = no_value;
				break;
			}
			case REP_REF:
			case REP_SERIAL:
				lv->isnull = isnull;
				lv->no_value = no_value;
				if (isnull)
					break;
				if (t->rep == REP_SERIAL)
				{
					aggs->advance->ecxt_per_tuple_memory = cxt;
					lv->value =
						load_serial(aggs, t, cursor_ref(&c, t), aggs->advance);
					if (unlikely(aggs->advance->ecxt_callbacks != NULL))
						move_callbacks(aggs->advance, cxt);
				}
				else
				{
					MemoryContext old = MemoryContextSwitchTo(cxt);

					lv->value = datumCopy(PointerGetDatum(cursor_ref(&c, t)),
										  false, t->len);
					MemoryContextSwitchTo(old);
				}
				break;
			case REP_PAIR:
				memcpy(lv, fixed, sizeof(LivePair));
				break;
			case REP_INT128:
#ifdef HAVE_INT128
				memcpy(&((LiveInt128 *) lv)->s, fixed, INT128_SIZE);
				((LiveInt128 *) lv)->isnull = isnull;
#endif
				break;
			case REP_ROWS:
			{
				LiveRows *rows = (LiveRows *) lv;
				Size size;
				Size unique;
				const char *data = cursor_rows(&c, &size, &unique);

				if (size == 0)
					break;
				rows_room(rows, cxt, size + size / 8);
				memcpy(rows->data, data, size);
				rows->used = size;
				rows->unique = unique;
				break;
			}
		}
	}
}

/* VALUE with a kernel of its own: as if v, not null, were combined. */
static void
merge_value(const Trans *t, LiveValue *lv, Datum v)
{
	if (lv->isnull)
	{
		/* of a strict function, it would be for good if there was a value */
		if (lv->no_value)
		{
			lv->value = v;
			lv->isnull = lv->no_value = false;
		}
		return;
	}
	switch (t->kernel)
	{
		case KERNEL_COUNT:
		case KERNEL_COUNT_ANY:
		case KERNEL_SUM_INT4:
		case KERNEL_SUM_INT2:
		{
			int64 n;

			if (unlikely(pg_add_s64_overflow(DatumGetInt64(lv->value),
											 DatumGetInt64(v), &n)))
				bigint_out_of_range();
			lv->value = Int64GetDatum(n);
			break;
		}
		case KERNEL_MAX_INT8:
			if (DatumGetInt64(v) > DatumGetInt64(lv->value))
				lv->value = v;
			break;
		case KERNEL_MIN_INT8:
			if (DatumGetInt64(v) < DatumGetInt64(lv->value))
				lv->value = v;
			break;
		case KERNEL_MAX_INT4:
			if (DatumGetInt32(v) > DatumGetInt32(lv->value))
				lv->value = v;
			break;
		case KERNEL_MIN_INT4:
			if (DatumGetInt32(v) < DatumGetInt32(lv->value))
				lv->value = v;
			break;
		case KERNEL_MAX_INT2:
			if (DatumGetInt16(v) > DatumGetInt16(lv->value))
				lv->value = v;
			break;
		case KERNEL_MIN_INT2:
			if (DatumGetInt16(v) < DatumGetInt16(lv->value))
				lv->value = v;
			break;
		case KERNEL_SUM_FLOAT8:
			lv->value = Float8GetDatum(
				float8_pl(DatumGetFloat8(lv->value), DatumGetFloat8(v)));
			break;
		case KERNEL_MAX_FLOAT8:
			if (!float8_gt(DatumGetFloat8(lv->value), DatumGetFloat8(v)))
				lv->value = v;
			break;
		case KERNEL_MIN_FLOAT8:
			if (!float8_lt(DatumGetFloat8(lv->value), DatumGetFloat8(v)))
				lv->value = v;
			break;
		case KERNEL_BOOL_AND:
			if (!DatumGetBool(v))
				lv->value = v;
			break;
		case KERNEL_BOOL_OR:
			if (DatumGetBool(v))
				lv->value = v;
			break;
		default:
			Assert(false);
	}
}

/* By the combine function; of other memory than cxt nothing stays in use. */
static void
merge_combine(WeirAggs *aggs, Trans *t, LiveValue *lv, MemoryContext cxt,
			  const char *bytes, Datum state)
{
	MemoryContext temp = aggs->temp->ecxt_per_tuple_memory;
	MemoryContext old = MemoryContextSwitchTo(temp);

	aggs->advance->ecxt_per_tuple_memory = cxt;
	if (t->rep == REP_SERIAL)
		state = deserialize(aggs, t, bytes, aggs->advance);
	combine(aggs, t, lv, state, aggs->advance);
	MemoryContextSwitchTo(old);
	MemoryContextReset(temp);
	if (unlikely(aggs->advance->ecxt_callbacks != NULL))
		move_callbacks(aggs->advance, cxt);
}

static void
merge_rows(const Trans *t, LiveRows *rows, MemoryContext cxt, const char *data,
		   Size size, Size unique)
{
	if (size == 0)
		return;
	if (t->only_first && rows->used > 0)
	{
		if (row_number(t, rows->data) < row_number(t, data))
			return;
		rows->used = 0;
	}
	rows_room(rows, cxt, size);
	memcpy(rows->data + rows->used, data, size);
	if (rows->used == 0)
		rows->unique = unique;
	rows->used += size;
	if (t->is_distinct)
		rows_unique(t, rows);
}

void
weir_aggs_merge(WeirAggs *aggs, void *live, MemoryContext cxt,
				const char *bytes, Size len)
{
	Cursor c;

	Assert(aggs->merged);
	cursor_start(aggs, &c, bytes, len);
	for (int i = 0; i < aggs->ntrans; i++)
	{
		Trans *t = &aggs->trans[i];
		LiveValue *lv = LIVE(t, live, LiveValue);
		const char *fixed = bytes + t->fixed;
		bool isnull;
		bool no_value;

		cursor_bits(&c, i, &isnull, &no_value);
		switch (t->rep)
		{
			case REP_VALUE:
			{
				uint64 v;

				if (isnull)
					break;
				memcpy(&v, fixed, sizeof(v));
				if (t->kernel == KERNEL_CALL)
					merge_combine(aggs, t, lv, cxt, NULL, (Datum) v);
				else
					merge_value(t, lv, (Datum) v);
				break;
			}
			case REP_REF:
			case REP_SERIAL:
			{
				const char *item;

				if (isnull)
					break;
				item = cursor_ref(&c, t);
				merge_combine(aggs, t, lv, cxt, item, PointerGetDatum(item));
				break;
			}
			case REP_PAIR:
			{
				LivePair *pair = (LivePair *) lv;
				LivePair other;

				memcpy(&other, fixed, sizeof(other));
				pair->count += other.count;
				pair->sum += other.sum;
				break;
			}
			case REP_INT128:
#ifdef HAVE_INT128
			{
				LiveInt128 *l = (LiveInt128 *) lv;
				Int128State other;

				if (isnull)
					break;
				memcpy(&other, fixed, INT128_SIZE);
				l->isnull = false;
				l->s.n += other.n;
				l->s.sum_x += other.sum_x;
				l->s.sum_x2 += other.sum_x2;
			}
#endif
			break;
			case REP_ROWS:
			{
				Size size;
				Size unique;
				const char *data = cursor_rows(&c, &size, &unique);

				merge_rows(t, (LiveRows *) lv, cxt, data, size, unique);
				break;
			}
		}
	}
}

char *
weir_aggs_empty(WeirAggs *aggs, Size *len)
{
	void *live = palloc(weir_aggs_live_size(aggs));
	char *bytes;

	weir_aggs_start(aggs, live, CurrentMemoryContext);
	*len = weir_aggs_save_size(aggs, live, CurrentMemoryContext);
	bytes = palloc(*len);
	weir_aggs_save(aggs, live, bytes);
	return bytes;
}

/* ---- texts ---- */

#define TEXT_NULL	  1
#define TEXT_NO_VALUE 2

static void
make_io(WeirAggs *aggs, Trans *t)
{
	MemoryContext old;
	int n = t->rep == REP_ROWS ? t->nargs : 1;

	if (t->io != NULL)
		return;
	old = MemoryContextSwitchTo(aggs->cxt);
	t->io = palloc0(Max(n, 1) * sizeof(WeirTypeIO));
	t->first_last =
		t->rep == REP_REF && weir_first_last_is(&t->pertrans->transfn);
	for (int i = 0; i < n; i++)
	{
		Oid type = t->pertrans->aggtranstype;

		if (t->first_last)
			type = exprType(
				(Node *) linitial_node(TargetEntry, t->pertrans->aggref->args)
					->expr);
		else if (t->rep == REP_ROWS)
			type = TupleDescAttr(t->row_desc, i)->atttypid;
		weir_type_io_init(&t->io[i], type);
	}
	MemoryContextSwitchTo(old);
}

bool
weir_aggs_any_serial(const WeirAggs *aggs)
{
	for (int i = 0; i < aggs->ntrans; i++)
		if (aggs->trans[i].rep == REP_SERIAL)
			return true;
	return false;
}

/* How many rows, and of those the ones known to be different; then each: its
 * number if it has one, its columns. */
static void
rows_out(Trans *t, const char *data, Size size, Size unique, WeirTexts *to)
{
	Datum *values = palloc(Max(t->nargs, 1) * sizeof(Datum));
	bool *isnull = palloc(Max(t->nargs, 1) * sizeof(bool));
	int64 count = 0;
	int64 different = 0;

	for (Size off = 0; off < size; off += row_size(t, data + off, size - off))
	{
		count++;
		if (off < unique)
			different++;
	}
	weir_texts_add_int(to, count);
	weir_texts_add_int(to, different);
	for (Size off = 0; off < size; off += row_size(t, data + off, size - off))
	{
		if (t->numbered)
			weir_texts_add_int(to, (int64) row_number(t, data + off));
		row_deform(t, data + off, values, isnull);
		for (int i = 0; i < t->nargs; i++)
			weir_texts_add_value(to, &t->io[i], values[i], isnull[i]);
	}
}

#ifdef HAVE_INT128
static void
int128_out(int128 value, WeirTexts *to)
{
	weir_texts_add_int(to, (int64) (value >> 64));
	weir_texts_add_int(to, (int64) (uint64) value);
}

static int128
int128_in(WeirTexts *from)
{
	int64 high = weir_texts_next_int(from, PG_INT64_MIN, PG_INT64_MAX);
	int64 low = weir_texts_next_int(from, PG_INT64_MIN, PG_INT64_MAX);

	return (int128) (((uint128) (uint64) high << 64) | (uint64) low);
}
#endif

void
weir_aggs_out(WeirAggs *aggs, const char *bytes, Size len, WeirTexts *to)
{
	Cursor c;

	cursor_start(aggs, &c, bytes, len);
	for (int i = 0; i < aggs->ntrans; i++)
	{
		Trans *t = &aggs->trans[i];
		const char *fixed = bytes + t->fixed;
		bool isnull;
		bool no_value;

		cursor_bits(&c, i, &isnull, &no_value);
		weir_texts_add_int(to, (isnull ? TEXT_NULL : 0) |
								   (no_value ? TEXT_NO_VALUE : 0));
		if (isnull)
			continue;
		switch (t->rep)
		{
			case REP_VALUE:
			{
				uint64 v;

				make_io(aggs, t);
				memcpy(&v, fixed, sizeof(v));
				weir_texts_add_value(to, t->io, (Datum) v, false);
				break;
			}
			case REP_REF:
			{
				Datum value = PointerGetDatum(cursor_ref(&c, t));

				make_io(aggs, t);
				if (t->first_last)
					weir_first_last_out(value, t->io, to);
				else
					weir_texts_add_value(to, t->io, value, false);
				break;
			}
			case REP_SERIAL:
			{
				const char *item = cursor_ref(&c, t);

				weir_texts_add_bytes(to, VARDATA_ANY(item),
									 VARSIZE_ANY_EXHDR(item));
				break;
			}
			case REP_PAIR:
			{
				LivePair pair;

				memcpy(&pair, fixed, sizeof(pair));
				weir_texts_add_int(to, pair.count);
				weir_texts_add_int(to, pair.sum);
				break;
			}
			case REP_INT128:
#ifdef HAVE_INT128
			{
				Int128State s;

				memcpy(&s, fixed, INT128_SIZE);
				weir_texts_add_int(to, s.n);
				int128_out(s.sum_x, to);
				int128_out(s.sum_x2, to);
			}
#endif
			break;
			case REP_ROWS:
			{
				Size size;
				Size unique;
				const char *data = cursor_rows(&c, &size, &unique);

				make_io(aggs, t);
				rows_out(t, data, size, unique, to);
				break;
			}
		}
	}
}

static void
rows_in(WeirAggs *aggs, Trans *t, LiveRows *rows, WeirTexts *from)
{
	int64 count = weir_texts_next_int(from, 0, PG_INT32_MAX);
	int64 different = weir_texts_next_int(from, 0, count);
	Datum *values = palloc(Max(t->nargs, 1) * sizeof(Datum));
	bool *isnull = palloc(Max(t->nargs, 1) * sizeof(bool));

	for (int64 n = 0; n < count; n++)
	{
		uint64 number = 0;

		CHECK_FOR_INTERRUPTS();
		if (t->numbered)
			number = (uint64) weir_texts_next_int(from, 0, PG_INT64_MAX);
		for (int i = 0; i < t->nargs; i++)
			values[i] = weir_texts_next_value(from, &t->io[i], -1, &isnull[i]);
		row_add(t, rows, CurrentMemoryContext, values, isnull, number);
		if (n + 1 == different)
			rows->unique = rows->used;
	}
}

char *
weir_aggs_in(WeirAggs *aggs, WeirTexts *from, Size *len)
{
	MemoryContext cxt = CurrentMemoryContext;
	char *live = palloc(weir_aggs_live_size(aggs));
	char *bytes;

	weir_aggs_start(aggs, live, cxt);
	for (int i = 0; i < aggs->ntrans; i++)
	{
		Trans *t = &aggs->trans[i];
		LiveValue *lv = LIVE(t, live, LiveValue);
		int bits =
			(int) weir_texts_next_int(from, 0, TEXT_NULL | TEXT_NO_VALUE);
		bool isnull = (bits & TEXT_NULL) != 0;
		bool is_value =
			t->rep == REP_VALUE || t->rep == REP_REF || t->rep == REP_SERIAL;

		if ((isnull && !is_value && t->rep != REP_INT128) ||
			((bits & TEXT_NO_VALUE) && !is_value))
			weir_texts_are_bad("an aggregate that cannot be null");
		if (is_value)
		{
			lv->isnull = isnull;
			lv->no_value = (bits & TEXT_NO_VALUE) != 0;
		}
		if (isnull)
			continue;
		switch (t->rep)
		{
			case REP_VALUE:
			case REP_REF:
				make_io(aggs, t);
				lv->value = t->first_last ? weir_first_last_in(t->io, from)
										  : weir_texts_next_value(from, t->io,
																  -1, &isnull);
				if (isnull)
					weir_texts_are_bad("null where a value is expected");
				break;
			case REP_SERIAL:
				aggs->advance->ecxt_per_tuple_memory = cxt;
				lv->value =
					load_serial(aggs, t, (char *) weir_texts_next_bytes(from),
								aggs->advance);
				if (unlikely(aggs->advance->ecxt_callbacks != NULL))
					move_callbacks(aggs->advance, cxt);
				break;
			case REP_PAIR:
			{
				LivePair *pair = (LivePair *) lv;

				pair->count = weir_texts_next_int(from, 0, PG_INT64_MAX);
				pair->sum =
					weir_texts_next_int(from, PG_INT64_MIN, PG_INT64_MAX);
				break;
			}
			case REP_INT128:
#ifdef HAVE_INT128
			{
				LiveInt128 *l = (LiveInt128 *) lv;

				l->isnull = false;
				l->s.n = weir_texts_next_int(from, 0, PG_INT64_MAX);
				l->s.sum_x = int128_in(from);
				l->s.sum_x2 = int128_in(from);
			}
#endif
			break;
			case REP_ROWS:
				make_io(aggs, t);
				rows_in(aggs, t, (LiveRows *) lv, from);
				break;
		}
	}
	*len = weir_aggs_save_size(aggs, live, cxt);
	bytes = palloc_extended(*len, MCXT_ALLOC_HUGE);
	weir_aggs_save(aggs, live, bytes);
	return bytes;
}

/* ---- final ---- */

typedef struct SortRow
{
	Datum *values;
	bool *isnull;
	uint64 number; /* along the log */
} SortRow;

static int
compare_rows(const void *a, const void *b, void *arg)
{
	const SortRow *x = a;
	const SortRow *y = b;
	Trans *t = arg;

	CHECK_FOR_INTERRUPTS();
	for (int i = 0; i < t->nsort; i++)
	{
		SortColumn *c = &t->sort[i];
		int result;

		result = ApplySortComparator(x->values[c->column], x->isnull[c->column],
									 y->values[c->column], y->isnull[c->column],
									 &c->ssup);
		if (result != 0)
			return result;
	}
	/* ties follow the log */
	return x->number < y->number ? -1 : x->number > y->number;
}

static bool
rows_equal(Trans *t, const SortRow *x, const SortRow *y)
{
	for (int i = 0; i < t->nsort; i++)
	{
		SortColumn *c = &t->sort[i];

		if (x->isnull[c->column] != y->isnull[c->column])
			return false;
		if (!x->isnull[c->column] &&
			!DatumGetBool(FunctionCall2Coll(&c->equal, c->equal_collation,
											x->values[c->column],
											y->values[c->column])))
			return false;
	}
	return true;
}

static void
fold_row(WeirAggs *aggs, Trans *t, LiveValue *lv, const Datum *values,
		 const bool *isnull)
{
	CHECK_FOR_INTERRUPTS();
	for (int i = 0; i < t->ncall; i++)
	{
		t->fcinfo->args[i + 1].value = values[i];
		t->fcinfo->args[i + 1].isnull = isnull[i];
	}
	call_transition(aggs, t, lv, aggs->final);
}

/* Are the rows in log order as they lie?  Merged ones need not be. */
static bool
rows_in_order(const Trans *t, const char *data, Size size)
{
	uint64 last = 0;

	if (!t->numbered)
		return true;
	for (Size off = 0; off < size; off += row_size(t, data + off, size - off))
	{
		uint64 number = row_number(t, data + off);

		if (number < last)
			return false;
		last = number;
	}
	return true;
}

/* Run the aggregate over its kept rows. */
static void
fold_rows(WeirAggs *aggs, Trans *t, LiveValue *lv, const char *data, Size size)
{
	MemoryContext old = MemoryContextSwitchTo(aggs->work);
	SortRow *rows;
	Datum *values;
	bool *isnull;
	Size n = 0;
	Size i = 0;

	start_value(t, lv, aggs->final->ecxt_per_tuple_memory);
	if (t->nsort == 0 && rows_in_order(t, data, size))
	{
		values = palloc(Max(t->nargs, 1) * sizeof(Datum));
		isnull = palloc(Max(t->nargs, 1) * sizeof(bool));
		for (Size off = 0; off < size;)
		{
			Size this = row_size(t, data + off, size - off);

			row_deform(t, data + off, values, isnull);
			fold_row(aggs, t, lv, values, isnull);
			off += this;
		}
		MemoryContextSwitchTo(old);
		return;
	}

	for (Size off = 0; off < size; off += row_size(t, data + off, size - off))
		n++;
	rows = MemoryContextAllocHuge(aggs->work, Max(n, 1) * sizeof(SortRow));
	values = MemoryContextAllocHuge(aggs->work,
									Max(n * t->nargs, 1) * sizeof(Datum));
	isnull =
		MemoryContextAllocHuge(aggs->work, Max(n * t->nargs, 1) * sizeof(bool));
	for (Size off = 0; off < size; off += row_size(t, data + off, size - off))
	{
		rows[i].values = values + i * t->nargs;
		rows[i].isnull = isnull + i * t->nargs;
		rows[i].number = t->numbered ? row_number(t, data + off) : i;
		row_deform(t, data + off, rows[i].values, rows[i].isnull);
		i++;
	}
	qsort_arg(rows, n, sizeof(SortRow), compare_rows, t);
	for (i = 0; i < n; i++)
	{
		if (t->is_distinct && i > 0)
		{
			/* against the last row passed on, as the server does */
			if (rows_equal(t, &rows[i], &rows[i - 1]))
			{
				rows[i].values = rows[i - 1].values;
				rows[i].isnull = rows[i - 1].isnull;
				continue;
			}
		}
		fold_row(aggs, t, lv, rows[i].values, rows[i].isnull);
	}
	MemoryContextSwitchTo(old);
}

/* The state of t as a Datum its final functions can take. */
static void
final_state(WeirAggs *aggs, int i, Cursor *c)
{
	Trans *t = &aggs->trans[i];
	LiveValue *lv = &t->final.v;
	const char *fixed = c->bytes + t->fixed;
	MemoryContext memory = aggs->final->ecxt_per_tuple_memory;
	MemoryContext old;

	cursor_bits(c, i, &lv->isnull, &lv->no_value);
	lv->value = (Datum) 0;
	switch (t->rep)
	{
		case REP_VALUE:
			if (!lv->isnull)
			{
				uint64 v;

				memcpy(&v, fixed, sizeof(v));
				lv->value = v;
			}
			break;
		case REP_REF:
			if (lv->isnull)
				break;
			lv->value = PointerGetDatum(cursor_ref(c, t));
			if (!t->read_only)
			{
				old = MemoryContextSwitchTo(memory);
				lv->value = datumCopy(lv->value, false, t->len);
				MemoryContextSwitchTo(old);
			}
			break;
		case REP_PAIR:
			old = MemoryContextSwitchTo(memory);
			lv->value = datumCopy(t->init, false, t->len);
			MemoryContextSwitchTo(old);
			memcpy(ARR_DATA_PTR((ArrayType *) DatumGetPointer(lv->value)),
				   fixed, sizeof(LivePair));
			break;
		case REP_INT128:
			if (lv->isnull)
				break;
			{
				char *copy = MemoryContextAlloc(memory, INT128_SIZE + 16);

				copy = (char *) TYPEALIGN(16, copy);
				memcpy(copy, fixed, INT128_SIZE);
				lv->value = PointerGetDatum(copy);
			}
			break;
		case REP_SERIAL:
			if (!lv->isnull)
				lv->value = load_serial(aggs, t, cursor_ref(c, t), aggs->final);
			break;
		case REP_ROWS:
		{
			Size size;
			Size unique;
			const char *data = cursor_rows(c, &size, &unique);

			fold_rows(aggs, t, lv, data, size);
			break;
		}
	}
}

static void
final_value(WeirAggs *aggs, Agg1 *a, TupleTableSlot *keys, Datum *value,
			bool *isnull)
{
	Trans *t = &aggs->trans[a->trans];
	LiveValue *lv = &t->final.v;
	FunctionCallInfo fcinfo = a->fcinfo;
	bool any_null = lv->isnull;
	Datum state;
	int i = 1;
	ListCell *lc;

	state = t->byval
				? lv->value
				: MakeExpandedObjectReadOnly(lv->value, lv->isnull, t->len);
	if (fcinfo == NULL)
	{
		*value = state;
		*isnull = lv->isnull;
		return;
	}

	if (a->direct != NIL)
	{
		aggs->direct->ecxt_scantuple = keys;
		foreach(lc, a->direct)
		{
			fcinfo->args[i].value = ExecEvalExprSwitchContext(
				lfirst(lc), aggs->direct, &fcinfo->args[i].isnull);
			any_null |= fcinfo->args[i].isnull;
			i++;
		}
	}
	for (; i < fcinfo->nargs; i++)
	{
		fcinfo->args[i].value = (Datum) 0;
		fcinfo->args[i].isnull = true;
		any_null = true;
	}
	if (any_null && fcinfo->flinfo->fn_strict)
	{
		*value = (Datum) 0;
		*isnull = true;
		return;
	}
	aggs->state->curaggcontext = aggs->final;
	aggs->state->curperagg = a->peragg;
	fcinfo->args[0].value = state;
	fcinfo->args[0].isnull = lv->isnull;
	fcinfo->isnull = false;
	*value = FunctionCallInvoke(fcinfo);
	*isnull = fcinfo->isnull;
	aggs->state->curperagg = NULL;
}

void
weir_aggs_final(WeirAggs *aggs, const char *bytes, Size len,
				TupleTableSlot *keys, Datum *values, bool *nulls)
{
	MemoryContext result_cxt = CurrentMemoryContext;
	bool has_direct = false;
	Cursor c;

	/* left by an error: what they would end is gone with its transaction */
	if (unlikely(aggs->final->ecxt_callbacks != NULL))
		aggs->final->ecxt_callbacks = NULL;
	aggs->state->curperagg = NULL;
	aggs->state->curpertrans = NULL;
	MemoryContextReset(aggs->final->ecxt_per_tuple_memory);
	MemoryContextReset(aggs->work);

	if ((uintptr_t) bytes % MAXIMUM_ALIGNOF != 0)
		bytes = memcpy(MemoryContextAlloc(aggs->work, len), bytes, len);
	cursor_start(aggs, &c, bytes, len);
	for (int i = 0; i < aggs->ntrans; i++)
		final_state(aggs, i, &c);

	MemoryContextSwitchTo(aggs->work);
	for (int i = 0; i < aggs->naggs; i++)
	{
		Agg1 *a = &aggs->aggs[i];

		if (a->same >= 0)
		{
			values[i] = values[a->same];
			nulls[i] = nulls[a->same];
			continue;
		}
		if (a->direct != NIL)
			has_direct = true;
		final_value(aggs, a, keys, &values[i], &nulls[i]);
		if (!a->result_byval && !nulls[i])
		{
			MemoryContextSwitchTo(result_cxt);
			values[i] = datumCopy(values[i], false, a->result_len);
			MemoryContextSwitchTo(aggs->work);
		}
	}
	MemoryContextSwitchTo(result_cxt);
	ReScanExprContext(aggs->final);
	if (has_direct)
		ResetExprContext(aggs->direct);
	MemoryContextReset(aggs->work);
}
