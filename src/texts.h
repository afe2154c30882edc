/*-------------------------------------------------------------------------
 *
 * texts.h
 *	  A row of texts, some of them NULL: what dumps carry of a view's state.
 *	  Values are written by their type's output function and read by its input
 *	  function, as in any dump, so what is read has been checked by its type.
 *
 *-------------------------------------------------------------------------
 */
#ifndef WEIR_TEXTS_H
#define WEIR_TEXTS_H

#include "pg_weir.h"

#include "compat.h"
#include "fmgr.h"

typedef struct WeirTexts
{
	char **items; /* NULL: null */
	int n;
	int size;
	int next; /* where reading stands */
} WeirTexts;

/* How values of a type are written and read. */
typedef struct WeirTypeIO
{
	Oid type;
	Oid param;
	int16 len;
	bool byval;
	FmgrInfo out;
	FmgrInfo in;
} WeirTypeIO;

extern void weir_type_io_init(WeirTypeIO *io, Oid type);

/* Memory is that of the current context. */
extern void weir_texts_clear(WeirTexts *t); /* forgets, frees nothing */
extern void weir_texts_add(WeirTexts *t, char *text);
extern void weir_texts_add_int(WeirTexts *t, int64 value);
extern void weir_texts_add_bytes(WeirTexts *t, const void *bytes, Size len);
extern void weir_texts_add_value(WeirTexts *t, WeirTypeIO *io, Datum value,
								 bool isnull);

/* Each raises 22P03 if there is nothing left or it is not of this kind. */
extern char *weir_texts_next(WeirTexts *t); /* may be NULL */
extern int64 weir_texts_next_int(WeirTexts *t, int64 min, int64 max);
extern struct varlena *weir_texts_next_bytes(WeirTexts *t);
extern Datum weir_texts_next_value(WeirTexts *t, WeirTypeIO *io, int32 typmod,
								   bool *isnull);
extern void weir_texts_end(const WeirTexts *t); /* nothing is left */
pg_noreturn extern void weir_texts_are_bad(const char *what);

/* As an array of text, and back. */
extern Datum weir_texts_to_array(const WeirTexts *t);
extern void weir_texts_from_array(WeirTexts *t, Datum array);

#endif /* WEIR_TEXTS_H */
