/*-------------------------------------------------------------------------
 *
 * first_last.h
 *	  The states of weir.first() and weir.last() in dumps.
 *
 *-------------------------------------------------------------------------
 */
#ifndef WEIR_FIRST_LAST_H
#define WEIR_FIRST_LAST_H

#include "pg_weir.h"

#include "fmgr.h"
#include "texts.h"

/* Is it the transition function of one of them? */
extern bool weir_first_last_is(const FmgrInfo *transition);
/* A state, not null, as texts, and back; io: of the value's type. */
extern void weir_first_last_out(Datum state, WeirTypeIO *io, WeirTexts *to);
extern Datum weir_first_last_in(WeirTypeIO *io, WeirTexts *from);

#endif /* WEIR_FIRST_LAST_H */
