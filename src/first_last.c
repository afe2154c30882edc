/*-------------------------------------------------------------------------
 *
 * first_last.c
 *	  The aggregates weir.first(value, at) and weir.last(value, at): the value
 *	  of the earliest and of the latest row.
 *
 * Of rows with equal times first keeps the one that came first, last the one
 * that came last.  Rows without a time are passed over; a null value of a row
 * with a time is a value.  The state is NULL until a row has come, then a
 * bytea, so that it is flat whatever the type of the value:
 *
 *	0	4	varlena length
 *	4	1	1 if the value is null
 *	5	3	zero
 *	8	8	the row's time
 *	16	..	a by-value Datum in 8 bytes; or the value as it would stand in a
 *			tuple, detoasted; nothing if it is null
 *
 * There is no combine function: the order of arrival, by which ties are
 * decided, does not survive a parallel plan.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "fmgr.h"
#include "utils/datum.h"
#include "utils/lsyscache.h"
#include "utils/timestamp.h"

#include "compat.h"
#include "first_last.h"

#define AT_NULL	 4
#define AT_TIME	 8
#define AT_VALUE 16

/* The type of the value, kept in fn_extra. */
typedef struct ValueType
{
	int16 len;
	bool byval;
} ValueType;

PG_FUNCTION_INFO_V1(weir_first_accum);
PG_FUNCTION_INFO_V1(weir_last_accum);
PG_FUNCTION_INFO_V1(weir_first_last_final);

static const ValueType *
value_type(FunctionCallInfo fcinfo)
{
	ValueType *t = fcinfo->flinfo->fn_extra;

	if (t == NULL)
	{
		Oid type = get_fn_expr_argtype(fcinfo->flinfo, 1);

		if (!OidIsValid(type))
			ereport(ERROR,
					(errcode(ERRCODE_INDETERMINATE_DATATYPE),
					 errmsg("could not determine the type of the value")));
		t = MemoryContextAlloc(fcinfo->flinfo->fn_mcxt, sizeof(ValueType));
		get_typlenbyval(type, &t->len, &t->byval);
		fcinfo->flinfo->fn_extra = t;
	}
	return t;
}

/* A state, of a value without toast pointers. */
static bytea *
make_state(TimestampTz at, Datum value, bool isnull, bool byval, int16 len)
{
	Size size = 0;
	bytea *state;

	if (!isnull)
		size = byval ? sizeof(Datum) : datumGetSize(value, false, len);
	state = palloc0(AT_VALUE + size);
	SET_VARSIZE(state, AT_VALUE + size);
	((char *) state)[AT_NULL] = isnull;
	memcpy((char *) state + AT_TIME, &at, sizeof(at));
	if (byval && !isnull)
		memcpy((char *) state + AT_VALUE, &value, sizeof(value));
	else if (!isnull)
		memcpy((char *) state + AT_VALUE, DatumGetPointer(value), size);
	return state;
}

/*
 * The state after a row that replaces the old one.  Written over the old state
 * when it is the aggregate's own memory and of the same length.
 */
static bytea *
replace_state(FunctionCallInfo fcinfo, bytea *old, TimestampTz at)
{
	const ValueType *t = value_type(fcinfo);
	bool isnull = PG_ARGISNULL(1);
	Datum value = isnull ? (Datum) 0 : PG_GETARG_DATUM(1);
	Size size = 0;

	if (!isnull)
	{
		if (t->len == -1)
			value = PointerGetDatum(PG_DETOAST_DATUM_PACKED(value));
		size = t->byval ? sizeof(Datum) : datumGetSize(value, false, t->len);
	}

	if (old == NULL || VARSIZE(old) != AT_VALUE + size ||
		!AggCheckCallContext(fcinfo, NULL))
		return make_state(at, value, isnull, t->byval, t->len);
	((char *) old)[AT_NULL] = isnull;
	memcpy((char *) old + AT_TIME, &at, sizeof(at));
	if (t->byval && !isnull)
		memcpy((char *) old + AT_VALUE, &value, sizeof(value));
	else if (!isnull)
		memcpy((char *) old + AT_VALUE, DatumGetPointer(value), size);
	return old;
}

static Datum
accum(FunctionCallInfo fcinfo, bool last)
{
	bytea *state = NULL;
	TimestampTz at;
	TimestampTz old;

	if (!PG_ARGISNULL(0))
	{
		state = PG_GETARG_BYTEA_P(0);
		if (VARSIZE(state) < AT_VALUE)
			ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
							errmsg("invalid state of first() or last()")));
	}
	if (PG_ARGISNULL(2))
	{
		if (state == NULL)
			PG_RETURN_NULL();
		PG_RETURN_BYTEA_P(state);
	}
	at = PG_GETARG_TIMESTAMPTZ(2);
	if (state != NULL)
	{
		memcpy(&old, (char *) state + AT_TIME, sizeof(old));
		if (last ? at < old : at >= old)
			PG_RETURN_BYTEA_P(state);
	}
	PG_RETURN_BYTEA_P(replace_state(fcinfo, state, at));
}

Datum
weir_first_accum(PG_FUNCTION_ARGS)
{
	return accum(fcinfo, false);
}

Datum
weir_last_accum(PG_FUNCTION_ARGS)
{
	return accum(fcinfo, true);
}

/* The value in a state, a copy, for the type's alignment. */
static Datum
state_value(const bytea *state, int16 len, bool byval, bool *isnull)
{
	Size size;
	Size want;
	char *value;
	Datum datum;

	*isnull = false;
	if (VARSIZE(state) < AT_VALUE)
		elog(ERROR, "unexpected state of first() or last()");
	if (((const char *) state)[AT_NULL])
	{
		*isnull = true;
		return (Datum) 0;
	}

	size = VARSIZE(state) - AT_VALUE;
	want = byval ? sizeof(Datum) : len > 0 ? len : 1;
	if (size < want)
		elog(ERROR, "unexpected state of first() or last()");
	if (byval)
	{
		memcpy(&datum, (const char *) state + AT_VALUE, sizeof(datum));
		return datum;
	}
	value = palloc(size);
	memcpy(value, (const char *) state + AT_VALUE, size);
	return PointerGetDatum(value);
}

Datum
weir_first_last_final(PG_FUNCTION_ARGS)
{
	const ValueType *t;
	Datum value;
	bool isnull;

	/* a caller outside an aggregate could pass bytes of another type */
	if (!AggCheckCallContext(fcinfo, NULL))
		elog(ERROR, "first() and last() called outside an aggregate");
	if (PG_ARGISNULL(0))
		PG_RETURN_NULL();

	t = value_type(fcinfo);
	value = state_value(PG_GETARG_BYTEA_P(0), t->len, t->byval, &isnull);
	if (isnull)
		PG_RETURN_NULL();
	PG_RETURN_DATUM(value);
}

/* ---- dumps: the time, whether the value is null, the value ---- */

bool
weir_first_last_is(const FmgrInfo *transition)
{
	return transition->fn_addr == weir_first_accum ||
		   transition->fn_addr == weir_last_accum;
}

void
weir_first_last_out(Datum state, WeirTypeIO *io, WeirTexts *to)
{
	bytea *s = DatumGetByteaP(state);
	TimestampTz at;
	Datum value;
	bool isnull;

	memcpy(&at, (char *) s + AT_TIME, sizeof(at));
	weir_texts_add_int(to, at);
	value = state_value(s, io->len, io->byval, &isnull);
	weir_texts_add_value(to, io, value, isnull);
}

Datum
weir_first_last_in(WeirTypeIO *io, WeirTexts *from)
{
	TimestampTz at = weir_texts_next_int(from, PG_INT64_MIN, PG_INT64_MAX);
	bool isnull;
	Datum value = weir_texts_next_value(from, io, -1, &isnull);

	if (!isnull && io->len == -1)
		value = PointerGetDatum(PG_DETOAST_DATUM_PACKED(value));
	return PointerGetDatum(make_state(at, value, isnull, io->byval, io->len));
}
