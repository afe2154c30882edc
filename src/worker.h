/*-------------------------------------------------------------------------
 *
 * worker.h
 *	  The background processes: one launcher, per database up to
 *	  weir.max_workers workers; find work, wait, read a batch, run it,
 *	  checkpoint, sleep.
 *
 *-------------------------------------------------------------------------
 */
#ifndef WEIR_WORKER_H
#define WEIR_WORKER_H

#include "pg_weir.h"

/* bgworker entry points, found by name */
extern PGDLLEXPORT void weir_launcher_main(Datum arg);
extern PGDLLEXPORT void weir_worker_main(Datum arg);

/* From _PG_init while preloading: register the launcher. */
extern void weir_worker_init(void);

/*
 * Bar a database (DROP, RENAME, SET TABLESPACE, TEMPLATE): its workers end and
 * none starts until unbar.  Waits for them; interruptible; unbarred by abort.
 */
extern void weir_worker_bar(Oid db);
extern void weir_worker_unbar(Oid db);

#endif /* WEIR_WORKER_H */
