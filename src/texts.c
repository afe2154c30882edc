/*-------------------------------------------------------------------------
 *
 * texts.c
 *	  A row of texts, some of them NULL.
 *
 * What is read may have been written by anybody: nothing is believed but what
 * an input function, or a check here, has accepted.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"

#include "texts.h"

void
weir_texts_are_bad(const char *what)
{
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_BINARY_REPRESENTATION),
			 errmsg("dumped state of a continuous view is damaged"),
			 errdetail("Found %s.", what),
			 errhint("To begin anew from the events that are left, use REFRESH "
					 "MATERIALIZED VIEW ... WITH NO DATA first.")));
}

void
weir_type_io_init(WeirTypeIO *io, Oid type)
{
	Oid function;
	bool varlena;

	io->type = type;
	get_typlenbyval(type, &io->len, &io->byval);
	getTypeOutputInfo(type, &function, &varlena);
	fmgr_info(function, &io->out);
	getTypeInputInfo(type, &function, &io->param);
	fmgr_info(function, &io->in);
}

void
weir_texts_clear(WeirTexts *t)
{
	t->n = t->next = 0;
}

void
weir_texts_add(WeirTexts *t, char *text)
{
	if (t->n == t->size)
	{
		t->size = Max(t->size * 2, 16);
		if (t->items == NULL)
			t->items = palloc(t->size * sizeof(char *));
		else
			t->items = repalloc_huge(t->items, t->size * sizeof(char *));
	}
	t->items[t->n++] = text;
}

void
weir_texts_add_int(WeirTexts *t, int64 value)
{
	weir_texts_add(t, psprintf(INT64_FORMAT, value));
}

/* In hexadecimal. */
void
weir_texts_add_bytes(WeirTexts *t, const void *bytes, Size len)
{
	char *text = palloc_extended(2 * len + 1, MCXT_ALLOC_HUGE);

	text[hex_encode(bytes, len, text)] = '\0';
	weir_texts_add(t, text);
}

void
weir_texts_add_value(WeirTexts *t, WeirTypeIO *io, Datum value, bool isnull)
{
	weir_texts_add(t, isnull ? NULL : OutputFunctionCall(&io->out, value));
}

char *
weir_texts_next(WeirTexts *t)
{
	if (t->next >= t->n)
		weir_texts_are_bad("too few fields");
	return t->items[t->next++];
}

int64
weir_texts_next_int(WeirTexts *t, int64 min, int64 max)
{
	char *text = weir_texts_next(t);
	int64 value;

	if (text == NULL)
		weir_texts_are_bad("null where a number is expected");
	value = DatumGetInt64(DirectFunctionCall1(int8in, CStringGetDatum(text)));
	if (value < min || value > max)
		weir_texts_are_bad("a number out of range");
	return value;
}

struct varlena *
weir_texts_next_bytes(WeirTexts *t)
{
	char *text = weir_texts_next(t);
	struct varlena *bytes;
	Size len;

	if (text == NULL)
		weir_texts_are_bad("null where bytes are expected");
	len = strlen(text);
	bytes = palloc(VARHDRSZ + len / 2);
	SET_VARSIZE(bytes, VARHDRSZ + hex_decode(text, len, VARDATA(bytes)));
	return bytes;
}

Datum
weir_texts_next_value(WeirTexts *t, WeirTypeIO *io, int32 typmod, bool *isnull)
{
	char *text = weir_texts_next(t);

	*isnull = text == NULL;
	/* also for NULL: a domain may refuse it */
	return InputFunctionCall(&io->in, text, io->param, typmod);
}

void
weir_texts_end(const WeirTexts *t)
{
	if (t->next != t->n)
		weir_texts_are_bad("too many fields");
}

Datum
weir_texts_to_array(const WeirTexts *t)
{
	Datum *values =
		palloc_extended(Max(t->n, 1) * sizeof(Datum), MCXT_ALLOC_HUGE);
	bool *nulls = palloc(Max(t->n, 1) * sizeof(bool));
	int dims[1] = {t->n};
	int lbs[1] = {1};

	for (int i = 0; i < t->n; i++)
	{
		nulls[i] = t->items[i] == NULL;
		values[i] = nulls[i] ? (Datum) 0 : CStringGetTextDatum(t->items[i]);
	}
	return PointerGetDatum(construct_md_array(
		values, nulls, 1, dims, lbs, TEXTOID, -1, false, TYPALIGN_INT));
}

void
weir_texts_from_array(WeirTexts *t, Datum array)
{
	ArrayType *a = DatumGetArrayTypeP(array);
	Datum *values;
	bool *nulls;
	int n;

	weir_texts_clear(t);
	if (ARR_NDIM(a) > 1)
		weir_texts_are_bad("an array of several dimensions");
	deconstruct_array(a, TEXTOID, -1, false, TYPALIGN_INT, &values, &nulls, &n);
	for (int i = 0; i < n; i++)
		weir_texts_add(t, nulls[i] ? NULL : TextDatumGetCString(values[i]));
}
