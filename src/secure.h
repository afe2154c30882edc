/*-------------------------------------------------------------------------
 *
 * secure.h
 *	  The context in which a view's user code runs: as the owner, under
 *	  SECURITY_RESTRICTED_OPERATION, search_path = pg_catalog, pg_temp, and the
 *	  settings frozen at CREATE.  From before parse analysis, rewriting or
 *	  planning of the view's query until after its last output, final,
 *	  support or operator function.
 *
 *-------------------------------------------------------------------------
 */
#ifndef WEIR_SECURE_H
#define WEIR_SECURE_H

#include "pg_weir.h"

typedef struct WeirSecure
{
	Oid save_user;
	int save_context;
	int nest_level; /* GUC nest level; 0: not entered */
} WeirSecure;

/*
 * settings: the view's reloption "settings" (from weir_secure_freeze), or NULL
 * for the current values (CREATE: they are being frozen).  An error unwinds it
 * through (sub)transaction abort; leave is for the normal path.
 */
extern void weir_secure_enter(WeirSecure *s, Oid owner, const char *settings);
extern void weir_secure_leave(WeirSecure *s);

/*
 * The values of the frozen settings as one text, those that "given" (such a
 * text, or NULL) has, else the current ones: name=value pairs, values quoted so
 * that any value survives.  The names are in secure.c.
 */
extern char *weir_secure_freeze(const char *given);

/*
 * A worker's mark: user code may be running now, so that whoever wants the
 * process to end has to cancel it.  The second may be asked in a signal handler.
 */
extern void weir_secure_user_code(bool on);
extern bool weir_secure_in_user_code(void);

/*
 * Cancel it (may be called in a signal handler); was that done while it runs?
 * Once the process is to end, all that begins is cancelled, until the last words:
 * what has to run for the last checkpoints.
 */
extern void weir_secure_cancel_user_code(void);
extern bool weir_secure_is_cancelled(void);
extern void weir_secure_last_words(void);

#endif /* WEIR_SECURE_H */
