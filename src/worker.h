/*-------------------------------------------------------------------------
 *
 * worker.h
 *	  The background process that maintains the continuous views of some
 *	  streams of a database: reads a batch, runs it, checkpoints, sleeps.
 *
 *-------------------------------------------------------------------------
 */
#ifndef WEIR_WORKER_H
#define WEIR_WORKER_H

#include "pg_weir.h"

/*
 * bgworker entry point, found by name.  arg: the worker's index (int32);
 * bgw_extra: the database's OID.
 */
extern PGDLLEXPORT void weir_worker_main(Datum arg);

#endif /* WEIR_WORKER_H */
