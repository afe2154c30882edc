/*-------------------------------------------------------------------------
 *
 * runs.h
 *	  Summaries of runs of blocks of a stream's log: what is in them, so that
 *	  who looks for something else need not read them.
 *
 * A run is WEIR_RUN_BLOCKS blocks from a multiple of it (fewer where the
 * visibility map's page ends).  What makes a summary right, and for how long,
 * is in the head of runs.c.
 *
 *-------------------------------------------------------------------------
 */
#ifndef WEIR_RUNS_H
#define WEIR_RUNS_H

#include "pg_weir.h"

#include "nodes/pg_list.h"
#include "utils/rel.h"

#ifdef WEIR_DEBUG
#define WEIR_RUN_BLOCKS 8 /* so that small tests have many */
#else
#define WEIR_RUN_BLOCKS 1024
#endif

/* A run with more open transactions is opaque; a row is not to be toasted. */
#define WEIR_RUN_MAX_OPEN 200

typedef struct WeirRun
{
	BlockNumber first;
	int32 blocks;
	XLogRecPtr lsn; /* of the visibility map's page; what it is valid for */

	bool opaque; /* nobody may pass over it: the rest says nothing */

	/* no transaction that has written here has a greater number */
	WeirNumber max_number;
	/* of the records here; PG_INT64_MAX, DT_NOEND, DT_NOBEGIN if none */
	WeirNumber min_number;
	TimestampTz min_arrival;
	TimestampTz max_arrival;
	/* of the events here: all of them are in this span, min > max if none */
	TimestampTz min_time;
	TimestampTz max_time;
	uint64 nchunks; /* that have rows */
	uint64 nrows;
	uint64 nbytes; /* of images, joined, that begin here */
	/* the highest W of the records here, of several the first; WEIR_NO_TIME */
	TimestampTz watermark;
	WeirNumber watermark_number;
	TimestampTz watermark_arrival;
	int32 watermark_kind;
	/* transactions that have written here and elsewhere, sorted */
	int nopen;
	FullTransactionId *open;

	bool skip; /* for the use of whom it is loaded for */
} WeirRun;

typedef struct WeirRuns
{
	int n;
	WeirRun *runs; /* by block */
} WeirRuns;

/*
 * The summaries that are valid now, palloc'd in the current context.  Whatever
 * a snapshot taken before this call shows of such a run is in its summary.  The
 * caller holds a lock on rel.
 */
extern WeirRuns *weir_runs_load(Relation rel);

/*
 * For who makes summaries: the runs that want one, and the removal of those that
 * are of no use any more.  The caller holds ShareUpdateExclusiveLock.
 */
extern List *weir_runs_wanted(Relation rel); /* of palloc'd WeirRun: first and
											  * blocks set */
/* Before it is read: sets lsn; false: it is not all visible any more. */
extern bool weir_runs_look(Relation rel, WeirRun *run);
/* Afterwards: is it what it was when looked at? */
extern bool weir_runs_unchanged(Relation rel, const WeirRun *run);
/* Which page of the visibility map it is of; they are numbered from 0. */
extern int64 weir_runs_map_page(const WeirRun *run);
/* Insert, or replace the one that is there. */
extern void weir_runs_put(Relation rel, const WeirRun *run);

extern void weir_runs_free(WeirRuns *runs);

/* For qsort, of WeirRun *: by the first number. */
extern int weir_runs_compare_numbers(const void *a, const void *b);

#endif /* WEIR_RUNS_H */
