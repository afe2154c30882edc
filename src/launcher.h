/*-------------------------------------------------------------------------
 *
 * launcher.h
 *	  The one process that keeps the workers of all databases running; bars
 *	  that keep them out of a database.
 *
 *-------------------------------------------------------------------------
 */
#ifndef WEIR_LAUNCHER_H
#define WEIR_LAUNCHER_H

#include "pg_weir.h"

/* bgworker entry point, found by name */
extern PGDLLEXPORT void weir_launcher_main(Datum arg);

/* From _PG_init while preloading: register the launcher. */
extern void weir_launcher_init(void);

/*
 * Bar a database (DROP, RENAME, SET TABLESPACE, TEMPLATE): its workers end and
 * none starts until unbar.  Waits for them; interruptible: the caller unbars on
 * abort.  unbar neither allocates nor raises.
 */
extern void weir_launcher_bar(Oid db);
extern void weir_launcher_unbar(Oid db);

#endif /* WEIR_LAUNCHER_H */
