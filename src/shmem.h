/*-------------------------------------------------------------------------
 *
 * shmem.h
 *	  Every byte of shared memory, every lock, the lock order.
 *
 * Lock order (take from top to bottom; never wait for a heavyweight lock, do
 * I/O or run user code while holding one of these):
 *
 *	1. directory_lock	who is in views[], streams[], workers[], prepared[].
 *						Held for microseconds; exclusive to add or remove.
 *	2. view->publish_lock	exclusive: the worker, for one publish, stamp or
 *						reload (microseconds per touched group); shared: a
 *						reader, while it opens a cut.
 *	3. view->part_lock[i]	one partition of the view's groups; exclusive: the
 *						worker inside a publish; shared: a reader copying.
 *						Never two at once.
 *	4. order_lock		the counter, the commit slots and the ring.  The last
 *						thing taken; taken alone at commit.
 *	5. dsa's own locks
 *
 * An entry of views[] is written by its worker only, except fields whose
 * comment says otherwise.
 *
 *-------------------------------------------------------------------------
 */
#ifndef WEIR_SHMEM_H
#define WEIR_SHMEM_H

#include "pg_weir.h"

#include "compat.h"
#include "port/atomics.h"
#include "storage/condition_variable.h"
#include "storage/lwlock.h"
#include "storage/spin.h"
#include "utils/dsa.h"

#define WEIR_MAX_VIEWS	 512 /* entries, rebuilds included */
#define WEIR_MAX_STREAMS 512
#define WEIR_MAX_WORKERS 128
#define WEIR_PARTITIONS	 64 /* of a view's groups */
/* A power of two; with debug points so small that any test overruns it. */
#ifdef WEIR_DEBUG
#define WEIR_RING_SIZE 64
#else
#define WEIR_RING_SIZE 16384
#endif

/* One committed transaction of one stream, as its writer publishes it. */
typedef struct WeirRingEntry
{
	Oid db;
	Oid stream;
	RelFileNumber filenumber; /* places are of this file */
	int slot; /* the stream's in streams[], or -1: it has none */
	TimestampTz published_at; /* for commit-to-visible latency */
	WeirTxn txn;
} WeirRingEntry;

/* A backend between PRE_COMMIT and the end of its commit; guard: order_lock */
typedef struct WeirCommitSlot
{
	WeirNumber number; /* WEIR_NO_NUMBER: not committing */
	TimestampTz arrival;
} WeirCommitSlot;

/* A prepared transaction's part in one stream; guard: directory_lock */
typedef struct WeirPrepared
{
	bool in_use;
	bool adopting; /* somebody is writing its ADOPT record */
	Oid db;
	Oid stream;
	FullTransactionId xid;
	RelFileNumber filenumber; /* places are of this file */
	WeirTxn txn;			  /* number and arrival come with adoption */
} WeirPrepared;

/*
 * Has a stream ended?  weir.stream_end says it; what is known of it saves
 * writers the look.  UNKNOWN -> NO by whoever has looked; anything -> YES when
 * the end is published; YES -> UNKNOWN by TRUNCATE, which keeps writers out.
 */
typedef enum WeirStreamEnd
{
	WEIR_END_UNKNOWN,
	WEIR_END_NO,
	WEIR_END_YES
} WeirStreamEnd;

/*
 * A stream that was written to or read since the server started.  Counters
 * start at 0 with the server.  Guard of the identity: directory_lock; of the
 * rest: atomics, or order_lock where said.
 */
typedef struct WeirStreamShared
{
	bool in_use;
	Oid db;
	Oid stream;
	pg_atomic_uint64 rows_in;
	pg_atomic_uint64 bytes_in;
	pg_atomic_uint64 refused_future;
	WeirNumber last_published; /* order_lock; highest published number */
	TimestampTz last_arrival;  /* order_lock */
	WeirWatermark mark;		   /* order_lock; the highest W of a record
								 * published since the start; the stream's once
								 * a scan has added what the log holds */
	bool watermark_valid;	   /* order_lock */
	pg_atomic_uint32 ended;	   /* WeirStreamEnd */
	int worker; /* directory_lock; who consumes it, in workers[]; -1: nobody */
	pg_atomic_uint32 collected; /* what was prepared before this life is in
								 * prepared[], as far as there was room */
} WeirStreamShared;

typedef enum WeirViewStatus
{
	WEIR_VIEW_STARTING, /* loading its checkpoint */
	WEIR_VIEW_BUILDING, /* consuming history, or a rebuild */
	WEIR_VIEW_RUNNING,
	WEIR_VIEW_PAUSED,
	WEIR_VIEW_STOPPED,
	WEIR_VIEW_FAILED,
	WEIR_VIEW_LOST
} WeirViewStatus;

/*
 * A continuous view (one generation of it) with its state in memory.
 */
typedef struct WeirViewShared
{
	/* identity; guard: directory_lock */
	bool in_use;
	bool answering; /* readers use it; false: a rebuild (REFRESH) that
								 * has not been swapped in */
	Oid db;
	Oid view;
	Oid stream;
	int64 generation;

	/* locks */
	LWLock publish_lock;
	LWLock part_lock[WEIR_PARTITIONS];

	/* progress; written by the worker under publish_lock exclusive; read under
	 * publish_lock shared, or alone through the atomics */
	pg_atomic_uint64 allowed_lateness; /* us; in force */
	pg_atomic_uint64 position;
	pg_atomic_uint64 reached;	   /* the highest position there has been; above
							   * position where a successor had to go back */
	TimestampTz watermark;		   /* W at position */
	pg_atomic_uint32 status;	   /* WeirViewStatus */
	ConditionVariable progress_cv; /* broadcast after each publish and status
									 * change: wait_for, readers of status */

	/* state (state.c); guard: publish_lock, then part_lock */
	bool state_valid;	   /* false: readers use the blobs */
	bool publishing;	   /* set through a publish; found set by a
								 * successor: discard and reload */
	uint64 version;		   /* number of the last publish */
	dsa_pointer root;	   /* state.c's WeirStateRoot */
	dsa_pointer kept;	   /* of a state that was discarded, for the next: */
	uint32 nkept;		   /* so many xids whose rows some snapshot may not */
	uint64 kept_at;		   /* see in the heap, as of this next xid */
	pg_atomic_uint32 cuts; /* open cuts */
	pg_atomic_uint64 groups;
	pg_atomic_uint64 state_bytes;
	pg_atomic_uint32 owner; /* the worker sets these two */
	pg_atomic_uint64
		role_memory; /* bytes for all of the owner's; 0: no limit */
	pg_atomic_uint64 shown_groups; /* estimate for the planner */

	/* what else the worker has of events up to position, and no checkpoint:
	 * late events, errors.  Private to it: when it dies, position and state
	 * are of no use to its successor.  Written by the worker alone. */
	bool owes_rows;

	/* requests from users' statements; anyone sets, the worker clears */
	pg_atomic_uint32 want_checkpoint; /* generation counter: a requester
										 * increments, then waits until
										 * done_checkpoint has reached it */
	pg_atomic_uint32 done_checkpoint;

	/* counters; written by the worker alone, read without lock */
	pg_atomic_uint64 events_in;
	pg_atomic_uint64 late;
	pg_atomic_uint64 late_partial;
	pg_atomic_uint64 final_rows;
	pg_atomic_uint64 batch_us;		/* last batch */
	pg_atomic_uint64 checkpoint_us; /* last checkpoint */
	pg_atomic_uint64 checkpoint_bytes;
	TimestampTz checkpoint_at;
	pg_atomic_uint64 build_done; /* bytes of log consumed by the build */
	pg_atomic_uint64 build_total;
	pg_atomic_uint32 visible_hist[32]; /* log2 us buckets, commit to visible */
	int worker_pid; /* who writes to this entry; 0: nobody; directory_lock */
	/* status FAILED: the wish's resumes it failed under, which the position row
	 * says a moment later, and the message; another status: what hinders the
	 * view, tried again and again, or empty; guard: publish_lock */
	int64 failed_resumes;
	char error[256];
} WeirViewShared;

/* A running worker process; guard of the identity: directory_lock */
typedef struct WeirWorkerShared
{
	bool in_use;
	Oid db;
	int index; /* 0 .. weir.max_workers - 1 */
	int pid;
	struct Latch *latch; /* the process's procLatch */
	bool waits;			 /* order_lock; for the horizon to move */
	pg_atomic_uint64 busy_us;
	pg_atomic_uint64 idle_us;
	pg_atomic_uint64 batches;
} WeirWorkerShared;

/* A database known to the launcher; guard: directory_lock */
typedef struct WeirDatabaseShared
{
	Oid db;				 /* InvalidOid: free */
	int bars;			 /* > 0: DROP DATABASE etc. under way, start
								 * nothing */
	bool closed;		 /* dropped, or takes no connections: start
								 * nothing, and forget it when its workers
								 * are gone */
	bool wants_look;	 /* CREATE EXTENSION or a new database: look
								 * again whether it has the extension */
	uint32 looks_wanted; /* how often wants_look was set: who looked
								 * clears it only if nobody has set it
								 * since he began */
	bool starved;		 /* a worker that it lacks was not to be had:
							  * max_worker_processes */
	int want_workers;	 /* processes that have work; 0: the extension
								 * was not there when looked for */
	/* by index: the last worker ended because it was asked to; the launcher
	 * clears it */
	bool ended_well[WEIR_MAX_WORKERS];
	pg_atomic_uint32 wishes; /* incremented when a statement that changed
								 * a wish has committed; workers compare */
} WeirDatabaseShared;

#define WEIR_MAX_DATABASES 256

typedef struct WeirShared
{
	int tranche; /* of all LWLocks here; set once */
	LWLock directory_lock;
	LWLock order_lock;

	/* order; guard: order_lock */
	WeirNumber last_number;		/* last number given; seeded from the WAL
								 * insert position on first use */
	WeirNumber boot_number;		/* that seed: numbers of this life are > it */
	FullTransactionId boot_xid; /* the next one then: no older transaction is
								 * of this life that has a number */
	TimestampTz last_arrival;	/* stamps of this life never fall */
	int ncommitting;			/* slots with a number */
	int nwaiting;				/* workers[] with waits */
	WeirNumber last_unlisted;	/* highest published number of streams that have
								 * no place in streams[] */
	uint64 ring_head;			/* entries ever published; entry i is
								 * ring[i % WEIR_RING_SIZE] */

	/* state memory: a DSA area of weir.state_memory kB in place */
	Size dsa_size;

	/* guard: directory_lock */
	int launcher_pid;
	struct Latch *launcher_latch;
	int nprepared; /* in_use elements of prepared[] */
	int max_prepared;

	WeirDatabaseShared databases[WEIR_MAX_DATABASES];
	WeirWorkerShared workers[WEIR_MAX_WORKERS];
	WeirStreamShared streams[WEIR_MAX_STREAMS];
	WeirViewShared views[WEIR_MAX_VIEWS];
	WeirRingEntry ring[WEIR_RING_SIZE];
	/* commit slots [max procs], prepared[max_prepared], and the DSA follow;
	 * reached through the functions below */
} WeirShared;

/* NULL when the library was not preloaded: callers of users' statements use
 * weir_shmem_require(). */
extern PGDLLIMPORT WeirShared *weir_shared;

extern void weir_shmem_init(void); /* from _PG_init: installs hooks */

/* ereports 55000 with hint "add pg_weir to shared_preload_libraries". */
extern void weir_shmem_require(void);

extern WeirCommitSlot *weir_shmem_commit_slots(int *n);
extern WeirPrepared *weir_shmem_prepared(int *n);

/* This process's mapping of the state area; attached at first use, kept. */
extern dsa_area *weir_shmem_dsa(void);

/*
 * Entries.  find: caller holds nothing; the entry stays valid as long as its
 * identity is rechecked under the lock the caller then takes.  make: finds or
 * adds; NULL when full.
 */
extern WeirStreamShared *weir_shmem_stream(Oid stream, bool make);
extern void weir_shmem_stream_free(Oid db, Oid stream); /* dropped; InvalidOid:
														 * all of db's */
/* Commits into the stream wake this worker (index in workers[]).  False: the
 * table is full; then they wake all workers of the database. */
extern bool weir_shmem_stream_watch(Oid stream, int worker);
extern WeirViewShared *weir_shmem_view(Oid view); /* the answering entry */
extern WeirViewShared *weir_shmem_view_generation(Oid view, int64 generation);
extern WeirViewShared *weir_shmem_view_make(Oid view, Oid stream,
											int64 generation, bool answering);
extern void weir_shmem_view_free(WeirViewShared *v); /* state already freed */
/* One that is not shared; in the current context. */
extern WeirViewShared *weir_shmem_view_private(Oid view, Oid stream,
											   int64 generation);
/*
 * Become the one process that writes to an entry.  Returns 0, or the pid of the
 * living worker that does already, or -1: the entry is another's by now.
 */
extern int weir_shmem_view_claim(WeirViewShared *v, Oid view, int64 generation);
extern void weir_shmem_view_unclaim(WeirViewShared *v);
/* Its worker goes; the caller holds directory_lock.  One that owes rows is not
 * running at its position until a successor has brought it there again. */
extern void weir_shmem_view_let_go(WeirViewShared *v);
extern WeirDatabaseShared *weir_shmem_database(Oid db, bool make);
/* Does this database lack workers that could not be started? */
extern bool weir_shmem_starved(void);

/* Wake all workers of a database (and make them look at the wishes again when
 * wishes is true), or the launcher.  Neither allocates nor raises. */
extern void weir_shmem_wake_workers(Oid db, bool wishes);
extern void weir_shmem_wake_launcher(void);

/* Sets status and error (NULL: none) and wakes waiters. */
extern void weir_shmem_view_set_status(WeirViewShared *v, WeirViewStatus status,
									   const char *error);

#endif /* WEIR_SHMEM_H */
