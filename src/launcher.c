/*-------------------------------------------------------------------------
 *
 * launcher.c
 *	  The one process that keeps the workers of all databases running; bars
 *	  that keep them out of a database.
 *
 * The postmaster starts the launcher when recovery has ended (so never on a
 * standby, and at its promotion), and again whenever it dies.  The launcher
 * looks at pg_database, and starts in each database the workers it lacks:
 *
 *	wants_look		index 0, to see whether the extension is there.  That
 *					worker clears the mark and sets want_workers; finding no
 *					extension it sets 0 and ends.
 *	want_workers	indexes 0 .. want_workers - 1.
 *
 * It needs no memory of its own for that: who runs stands in workers[], where
 * a worker enters before it connects to its database, and from where it goes
 * when its transactions are over.  So a new launcher takes over the workers of
 * its predecessor without knowing them.  What it remembers (Job) is for
 * back-off: a worker that dies within SHORT_LIFE is started again after 0.1 s,
 * 0.2 s .. MAX_DELAY.  One that ends because it was asked to (ended_well) is
 * started again at once.  One that has crashed the server CRASHES times in
 * succession, before it had got through what it has to do after its start, is
 * started after 1 s, 2 s .. MAX_DELAY: crash.c keeps that count.
 *
 * A bar is a count in databases[].  A worker that finds one after it has
 * entered workers[] ends at once, so when nobody is left in workers[] nobody
 * comes any more.
 *
 * Locks: directory_lock only.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <signal.h>

#include "access/heapam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/pg_database.h"
#include "miscadmin.h"
#include "nodes/pg_list.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

#include "compat.h"
#include "crash.h"
#include "debug.h"
#include "launcher.h"
#include "shmem.h"
#include "state.h"

#define SHORT_LIFE (5 * USECS_PER_SEC)
#define MIN_DELAY  (100 * INT64CONST(1000))
#define NONE_FREE  USECS_PER_SEC /* nobody tells us when a worker becomes free */
#define MAX_DELAY  (60 * USECS_PER_SEC)
#define CRASHES	   3
#define SCAN_EVERY \
	(60 * INT64CONST(1000)) /* ms: databases we were not told of */

/* At most so many workers look for the extension at a time. */
#define MAX_LOOKING 2

/* A worker this launcher has started, or will start again. */
typedef struct Job
{
	Oid db;
	int index;
	bool looks;						/* for the extension */
	BackgroundWorkerHandle *handle; /* NULL: does not run */
	TimestampTz started;
	bool refused; /* no background worker was free for it */
	TimestampTz not_before;
	int64 delay;
} Job;

static List *jobs = NIL; /* in TopMemoryContext */

static void
leave(int code, Datum arg)
{
	LWLockAcquire(&weir_shared->directory_lock, LW_EXCLUSIVE);
	weir_shared->launcher_pid = 0;
	weir_shared->launcher_latch = NULL;
	LWLockRelease(&weir_shared->directory_lock);
}

static void
enter(void)
{
	LWLockAcquire(&weir_shared->directory_lock, LW_EXCLUSIVE);
	weir_shared->launcher_pid = MyProcPid;
	weir_shared->launcher_latch = MyLatch;
	LWLockRelease(&weir_shared->directory_lock);
	before_shmem_exit(leave, (Datum) 0);
}

/* OIDs of the databases one can connect to. */
static List *
list_databases(void)
{
	List *result = NIL;
	Relation rel;
	TableScanDesc scan;
	HeapTuple tuple;
	MemoryContext old;

	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	PushActiveSnapshot(GetTransactionSnapshot());
	rel = table_open(DatabaseRelationId, AccessShareLock);
	scan = table_beginscan_catalog(rel, 0, NULL);
	while ((tuple = heap_getnext(scan, ForwardScanDirection)) != NULL)
	{
		Form_pg_database form = (Form_pg_database) GETSTRUCT(tuple);

		/* a limit below -1 marks one that DROP has not finished */
		if (!form->datallowconn || form->datconnlimit < -1)
			continue;
		old = MemoryContextSwitchTo(TopMemoryContext);
		result = lappend_oid(result, form->oid);
		MemoryContextSwitchTo(old);
	}
	table_endscan(scan);
	table_close(rel, AccessShareLock);
	PopActiveSnapshot();
	CommitTransactionCommand();
	return result;
}

/* What is left in shared memory, and of traces, of a database that was dropped. */
static void
forget_database(Oid db)
{
	weir_shmem_stream_free(db, InvalidOid);
	for (int i = 0; i < WEIR_MAX_WORKERS; i++)
		weir_crash_forget(db, i);
	for (int i = 0; i < WEIR_MAX_VIEWS; i++)
	{
		WeirViewShared *v = &weir_shared->views[i];

		if (!v->in_use || v->db != db)
			continue;
		weir_state_forget(v);
		weir_shmem_view_free(v);
	}
}

/* Ask the workers of a database to end.  Returns how many there are. */
static int
stop_workers(Oid db)
{
	int n = 0;

	LWLockAcquire(&weir_shared->directory_lock, LW_SHARED);
	for (int i = 0; i < WEIR_MAX_WORKERS; i++)
	{
		WeirWorkerShared *w = &weir_shared->workers[i];

		if (w->in_use && w->db == db)
		{
			kill(w->pid, SIGTERM);
			n++;
		}
	}
	LWLockRelease(&weir_shared->directory_lock);
	return n;
}

/*
 * databases[] follows pg_database.  A database that takes no connections any
 * more may still have workers: the state of its views is theirs until they are
 * gone, and then they wake us.
 */
static void
update_databases(void)
{
	List *databases = list_databases();
	ListCell *lc;

	foreach(lc, databases)
		(void) weir_shmem_database(lfirst_oid(lc), true);
	for (int i = 0; i < WEIR_MAX_DATABASES; i++)
	{
		WeirDatabaseShared *d = &weir_shared->databases[i];
		Oid gone = InvalidOid;

		LWLockAcquire(&weir_shared->directory_lock, LW_EXCLUSIVE);
		d->closed = !list_member_oid(databases, d->db);
		if (OidIsValid(d->db) && d->bars == 0 && d->closed)
			gone = d->db;
		LWLockRelease(&weir_shared->directory_lock);
		if (!OidIsValid(gone) || stop_workers(gone) > 0)
			continue;
		LWLockAcquire(&weir_shared->directory_lock, LW_EXCLUSIVE);
		d->db = InvalidOid;
		LWLockRelease(&weir_shared->directory_lock);
		forget_database(gone);
	}
	list_free(databases);
}

/* A worker that has crashed the server again and again has to wait. */
static int64
crash_delay(Oid db, int index)
{
	int count = weir_crash_count(db, index);
	int64 delay;

	if (count < CRASHES)
		return 0;
	delay = Min(USECS_PER_SEC << Min(count - CRASHES, 10), MAX_DELAY);
	ereport(LOG,
			(errmsg("a pg_weir worker has crashed the server %d times in "
					"succession",
					count),
			 errdetail("Worker %d of database %u is started in %d seconds.",
					   index, db, (int) (delay / USECS_PER_SEC)),
			 errhint("Drop the view whose function is the cause, or repair the "
					 "function.")));
	return delay;
}

static Job *
find_job(Oid db, int index, TimestampTz now)
{
	MemoryContext old;
	ListCell *lc;
	Job *job;

	foreach(lc, jobs)
	{
		job = lfirst(lc);
		if (job->db == db && job->index == index)
			return job;
	}
	old = MemoryContextSwitchTo(TopMemoryContext);
	job = palloc0(sizeof(Job));
	job->db = db;
	job->index = index;
	job->not_before = now + crash_delay(db, index);
	jobs = lappend(jobs, job);
	MemoryContextSwitchTo(old);
	return job;
}

/* Has the worker that was last there ended because it was asked to? */
static bool
has_ended_well(const Job *job)
{
	WeirDatabaseShared *d = weir_shmem_database(job->db, false);
	bool result = false;

	LWLockAcquire(&weir_shared->directory_lock, LW_EXCLUSIVE);
	if (d != NULL && d->db == job->db && job->index < WEIR_MAX_WORKERS)
	{
		result = d->ended_well[job->index];
		d->ended_well[job->index] = false;
	}
	LWLockRelease(&weir_shared->directory_lock);
	return result;
}

/* See which of our workers have ended; forget jobs of databases that are gone. */
static void
check_jobs(TimestampTz now)
{
	ListCell *lc;

	foreach(lc, jobs)
	{
		Job *job = lfirst(lc);
		pid_t pid;

		if (job->handle != NULL &&
			GetBackgroundWorkerPid(job->handle, &pid) == BGWH_STOPPED)
		{
			pfree(job->handle);
			job->handle = NULL;
			if (has_ended_well(job))
				job->delay = now - job->started < MIN_DELAY ? MIN_DELAY : 0;
			else if (now - job->started >= SHORT_LIFE)
				job->delay = 0;
			else if (job->delay == 0)
				job->delay = MIN_DELAY;
			else
				job->delay = Min(job->delay * 2, MAX_DELAY);
			job->not_before = now + job->delay;
		}
		if (job->handle == NULL && weir_shmem_database(job->db, false) == NULL)
		{
			pfree(job);
			jobs = foreach_delete_current(jobs, lc);
		}
	}
}

static void
start_job(Job *job, TimestampTz now)
{
	BackgroundWorker worker = {0};
	MemoryContext old;

	worker.bgw_flags =
		BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION;
	worker.bgw_start_time = BgWorkerStart_RecoveryFinished;
	worker.bgw_restart_time = BGW_NEVER_RESTART;
	worker.bgw_notify_pid = MyProcPid;
	worker.bgw_main_arg = Int32GetDatum(job->index);
	memcpy(worker.bgw_extra, &job->db, sizeof(Oid));
	strlcpy(worker.bgw_library_name, "pg_weir",
			sizeof(worker.bgw_library_name));
	strlcpy(worker.bgw_function_name, "weir_worker_main",
			sizeof(worker.bgw_function_name));
	snprintf(worker.bgw_name, sizeof(worker.bgw_name),
			 "pg_weir worker %d of database %u", job->index, job->db);
	strlcpy(worker.bgw_type, "pg_weir worker", sizeof(worker.bgw_type));

	weir_crash_begin(job->db, job->index,
					 weir_crash_count(job->db, job->index));
	old = MemoryContextSwitchTo(TopMemoryContext);
	if (RegisterDynamicBackgroundWorker(&worker, &job->handle))
	{
		job->started = now;
		job->refused = false;
	}
	else
	{
		weir_crash_forget(job->db, job->index);
		job->handle = NULL;
		job->not_before = now + NONE_FREE;
		/* tell it once */
		ereport(job->refused ? DEBUG1 : LOG,
				(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
				 errmsg("no background worker is free to maintain continuous "
						"views of database %u",
						job->db),
				 errhint("Increase max_worker_processes.")));
		job->refused = true;
	}
	MemoryContextSwitchTo(old);
}

static bool
worker_runs(Oid db, int index)
{
	for (int i = 0; i < WEIR_MAX_WORKERS; i++)
	{
		WeirWorkerShared *w = &weir_shared->workers[i];

		if (w->in_use && w->db == db && w->index == index)
			return true;
	}
	return false;
}

/* Workers that have not yet found out; one that has stays if it has work. */
static int
number_looking(void)
{
	ListCell *lc;
	int n = 0;

	foreach(lc, jobs)
	{
		Job *job = lfirst(lc);
		WeirDatabaseShared *d;

		if (job->handle == NULL || !job->looks)
			continue;
		d = weir_shmem_database(job->db, false);
		LWLockAcquire(&weir_shared->directory_lock, LW_SHARED);
		if (d != NULL && d->db == job->db && d->wants_look)
			n++;
		LWLockRelease(&weir_shared->directory_lock);
	}
	return n;
}

static void
set_starved(Oid db, bool starved)
{
	LWLockAcquire(&weir_shared->directory_lock, LW_EXCLUSIVE);
	for (int i = 0; i < WEIR_MAX_DATABASES; i++)
		if (weir_shared->databases[i].db == db)
			weir_shared->databases[i].starved = starved;
	LWLockRelease(&weir_shared->directory_lock);
}

/* Start what lacks.  Returns when to come again, in ms. */
static int64
start_workers(TimestampTz now)
{
	int64 wait = SCAN_EVERY;

	for (int i = 0; i < WEIR_MAX_DATABASES; i++)
	{
		WeirDatabaseShared d;
		int want;
		bool starved = false;
		bool runs[WEIR_MAX_WORKERS];

		LWLockAcquire(&weir_shared->directory_lock, LW_SHARED);
		d = weir_shared->databases[i];
		want = d.wants_look ? Max(d.want_workers, 1) : d.want_workers;
		want = Min(want, WEIR_MAX_WORKERS);
		if (!OidIsValid(d.db) || d.bars > 0 || d.closed)
			want = 0;
		for (int j = 0; j < want; j++)
			runs[j] = worker_runs(d.db, j);
		LWLockRelease(&weir_shared->directory_lock);

		for (int j = 0; j < want; j++)
		{
			Job *job;

			if (runs[j])
				continue;
			job = find_job(d.db, j, now);
			if (job->handle != NULL)
				continue; /* on its way */
			job->looks = d.want_workers == 0;
			if (now >= job->not_before &&
				(!job->looks || number_looking() < MAX_LOOKING))
				start_job(job, now);
			if (now < job->not_before)
				wait = Min(wait, (job->not_before - now) / 1000 + 1);
			starved = starved || job->refused;
		}
		if (starved != d.starved)
			set_starved(d.db, starved);
	}
	return wait;
}

void
weir_launcher_main(Datum arg)
{
	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	pqsignal(SIGTERM, SignalHandlerForShutdownRequest);
	BackgroundWorkerUnblockSignals();
	enter();
	BackgroundWorkerInitializeConnection(NULL, NULL, 0);
	SetConfigOption("search_path", "pg_catalog, pg_temp", PGC_SUSET,
					PGC_S_OVERRIDE);
	pgstat_report_activity(STATE_IDLE, NULL);

	for (;;)
	{
		TimestampTz now;
		int64 wait;

		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
		/* with 0 the postmaster would never start it again */
		if (ShutdownRequestPending)
			proc_exit(1);
		if (ConfigReloadPending)
		{
			ConfigReloadPending = false;
			ProcessConfigFile(PGC_SIGHUP);
		}
		update_databases();
		now = weir_now();
		check_jobs(now);
		wait = start_workers(now);
		pgstat_report_stat(false);
		(void) WaitLatch(MyLatch,
						 WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, wait,
						 PG_WAIT_EXTENSION);
	}
}

/* pg_upgrade must find the files as it left them: nothing runs then. */
void
weir_launcher_init(void)
{
	BackgroundWorker worker = {0};

	if (IsBinaryUpgrade)
		return;
	worker.bgw_flags =
		BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION;
	worker.bgw_start_time = BgWorkerStart_RecoveryFinished;
	worker.bgw_restart_time = 1;
	strlcpy(worker.bgw_library_name, "pg_weir",
			sizeof(worker.bgw_library_name));
	strlcpy(worker.bgw_function_name, "weir_launcher_main",
			sizeof(worker.bgw_function_name));
	strlcpy(worker.bgw_name, "pg_weir launcher", sizeof(worker.bgw_name));
	strlcpy(worker.bgw_type, "pg_weir launcher", sizeof(worker.bgw_type));
	RegisterBackgroundWorker(&worker);
}


/* ---- bars ---- */

static void
add_bar(Oid db, int n)
{
	LWLockAcquire(&weir_shared->directory_lock, LW_EXCLUSIVE);
	for (int i = 0; i < WEIR_MAX_DATABASES; i++)
	{
		WeirDatabaseShared *d = &weir_shared->databases[i];

		if (d->db == db && d->bars + n >= 0)
		{
			d->bars += n;
			d->wants_look = true;
			d->looks_wanted++;
		}
	}
	LWLockRelease(&weir_shared->directory_lock);
}

void
weir_launcher_bar(Oid db)
{
	if (weir_shmem_database(db, true) == NULL)
		return; /* the table is full: nothing was started there */
	add_bar(db, 1);
	while (stop_workers(db) > 0)
	{
		(void) WaitLatch(MyLatch,
						 WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, 10,
						 PG_WAIT_EXTENSION);
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
	}
}

void
weir_launcher_unbar(Oid db)
{
	add_bar(db, -1);
	weir_shmem_wake_launcher();
}
