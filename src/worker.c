/*-------------------------------------------------------------------------
 *
 * worker.c
 *	  The background process that maintains the continuous views of some
 *	  streams of a database: finds its work, runs batches, checkpoints, sleeps.
 *
 * Which streams: those of running or paused views, sorted by OID, are dealt out
 * to the min(weir.max_workers, number of streams) workers in turn.  Worker 0
 * tells the launcher that number, and does what is needed once per database
 * (numbering prepared transactions, retention of streams without views).
 *
 * A Run is one generation of one view.  Its states, as others see them:
 *
 *	STARTING -> BUILDING -> RUNNING <-> PAUSED
 *	   |            |          |        |
 *	   |            |          |        +-> LOST
 *	   +------------+----------+-> FAILED -> (weir.resume) -> STARTING
 *	                                    +-> LOST
 *
 * Lost is a generation for which the log is no longer kept (retention.c): its
 * position row says so, and it stays so until a REFRESH has replaced it.
 *
 * The wish of a view (catalog.h) says what shall be; sync_wishes() makes it so:
 * opens the generation that answers and the one that a REFRESH builds, retires
 * all others.  A Run that cannot be opened or locked now is tried again with
 * back-off; nothing here waits for a lock longer than LOCK_TIMEOUT.
 *
 * A Cohort is the Runs of a stream that stand at the same position with the
 * same watermark, of the same kind: that of event time, or that of arrival, for
 * views with windows over now().  It has one reader, and what it reads is
 * decoded once for all of them.  Runs fall out of step when one starts, fails,
 * is resumed or finds a lock taken; each then is a cohort of its own, which
 * catches up with the one that leads, but never passes it, and joins it when it
 * is level.
 *
 * Batches are batch.c's: a view in which a batch has failed leaves its cohort, at
 * its old position, and is tried again with back-off, or at once and alone, or
 * has failed.
 *
 * Errors elsewhere (reading the log, a checkpoint) are logged; what they were
 * about is tried again with back-off.
 *
 * SIGTERM: if user code runs it is cancelled, so that its batch is discarded;
 * then every view is checkpointed, and the process ends.
 *
 * Idleness: with idle_timeout, W of a stream without commits goes on with the
 * clock, from the last commit that this process has seen (or its start: the
 * server's downtime is not idleness; nor is the time in which nobody could take
 * what was committed).  It is moved by a record in the log, and
 * only when that makes a window final, so an idle stream costs nothing.  In the
 * same way windows over now() are closed when their end has passed and nothing
 * else has arrived: by a record whose arrival says so.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <signal.h>

#include "access/heapam.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/pg_class.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "storage/bufmgr.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/lmgr.h"
#include "storage/sinval.h"
#include "tcop/tcopprot.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timeout.h"

#include "batch.h"
#include "catalog.h"
#include "compat.h"
#include "crash.h"
#include "debug.h"
#include "flow.h"
#include "guc.h"
#include "log.h"
#include "log_reader.h"
#include "order.h"
#include "retention.h"
#include "runs.h"
#include "secure.h"
#include "shmem.h"
#include "state.h"
#include "stream.h"
#include "worker.h"

/* After so much of the log a view is checkpointed, whatever the interval. */
#ifdef WEIR_DEBUG
#define CHECKPOINT_LOG (UINT64CONST(16) * 1024 * 1024)
#else
#define CHECKPOINT_LOG (UINT64CONST(1024) * 1024 * 1024)
#endif
#define LOCK_TIMEOUT "500ms" /* less than deadlock_timeout: we yield first */
#define TICK		 USECS_PER_SEC
/*
 * us that writing ahead of a checkpoint may take between two batches, or, if they
 * take long, the share of it; and how late a checkpoint may be for it.
 */
#ifdef WEIR_DEBUG
#define AHEAD_SLICE 1
#else
#define AHEAD_SLICE 1000
#endif
#define AHEAD_SHARE	 8
#define AHEAD_MOST	 (100 * INT64CONST(1000))
#define AHEAD_LATE	 (10 * USECS_PER_SEC)
#define MAX_ADOPTING (100 * INT64CONST(1000)) /* at a time */

#define SWEEP_EVERY USECS_PER_SEC
#define CLOSE_EVERY (100 * INT64CONST(1000))
#define OPEN_TRIES	3 /* if memory is short */
#define SHOW_TRIES	5 /* of what is tried for ever, until it is shown */
#define LAST_TRIES	20
/* What all last checkpoints of a worker may take, and each in any case. */
#ifdef WEIR_DEBUG
#define LAST_SECONDS 5
#else
#define LAST_SECONDS 60
#endif
#define LAST_MS_AT_LEAST 1000
#define TRACE_FOR		 (60 * USECS_PER_SEC)
#define FIRST_RETRY		 (10 * INT64CONST(1000))
#define LAST_RETRY		 (5 * USECS_PER_SEC)

typedef struct Cohort
{
	Oid stream;
	WeirLogReader *reader;
	WeirPosition position;
	TimestampTz watermark; /* W at position */
	bool by_arrival;	   /* it is that of windows over now() */
	List *runs;
	int tries;
	TimestampTz next_try;
} Cohort;

/* What is tried again, and its entry shows with what error. */
typedef enum Hindrance
{
	BY_OPENING = 1,
	BY_PLANNING = 2,
	BY_BATCH = 4,
	BY_SAVING = 8
} Hindrance;

typedef struct Run
{
	Oid view;
	Oid stream;
	int64 generation;
	bool answering;
	char wanted;	/* WEIR_WANT_RUN or WEIR_WANT_PAUSE */
	int64 resumes;	/* of the wish */
	bool listed;	/* sync_wishes: still wished for */
	WeirFlow *flow; /* NULL: not open */
	Cohort *cohort; /* NULL: consumes nothing */
	bool failed;
	int64 failed_resumes; /* where failed: resumes then, or WEIR_LOST */
	const char *loss;	  /* its position row says that it is lost */
	bool paused;
	bool
		caught_up; /* has once been at the end of the log since it was opened */

	int tries; /* to open, lock, checkpoint */
	TimestampTz next_try;
	int batch_tries; /* of batches, in succession */
	int hindered;	 /* Hindrance bits: its entry shows why */
	int plan_tries;	 /* to plan again */
	TimestampTz next_plan;
	TimestampTz next_checkpoint;
	TimestampTz last_checkpoint;
	TimestampTz ahead_at; /* end of the last slice written ahead; 0: none yet */
	TimestampTz next_expire;
	bool expire_all; /* also what is not yet worth it */
	TimestampTz next_sweep;
	bool saved;		  /* there has been a checkpoint since it had caught up */
	uint64 log_bytes; /* consumed since the last checkpoint */
	uint32 asked;	  /* run_checkpoints: the requests it serves */

	WeirBatchMember member; /* its part in batches */
} Run;

/* What this process knows of a stream. */
typedef struct Stream
{
	Oid oid;
	bool collected;			/* prepared transactions, see log.h */
	TimestampTz next_clock; /* when close_by_clock may try again; 0: at once */
	/* idleness */
	bool options_known;	   /* false: they may have changed */
	int64 idle_timeout;	   /* us; 0: off */
	TimestampTz commit_at; /* clock at the last commit seen */
	TimestampTz commit_watermark;
} Stream;

static MemoryContext worker_cxt = NULL; /* runs, cohorts, streams */
static WeirWorkerShared *me = NULL;
static WeirDatabaseShared *database = NULL;
static int my_index;
static int my_slot; /* in workers[] */

static List *runs = NIL;
static List *cohorts = NIL;
static List *streams = NIL;
static uint32 wishes_seen;
static bool must_sync = true;
static bool extension_gone = false;
static TimestampTz next_tick = 0;
static bool ahead = false; /* there is more to be written ahead */
static TimestampTz next_retention = 0;
static TimestampTz next_summaries = 0;
static TimestampTz trace_until; /* 0: it has been removed */

/* Views that failed in a batch, until its transaction is over. */
typedef struct Failure
{
	Run *run;
	ErrorData *error;
} Failure;

static List *failures = NIL; /* in failure_cxt, as all they hold */
static MemoryContext failure_cxt = NULL;

static void leave_cohort(Run *run);
static void give_up_memory(Run *run);
static bool has_orphans(void);
static void close_run(Run *run);
static void discard_run(Run *run);


/* ---------- signals, start and end ---------- */

static void
handle_sigterm(SIGNAL_ARGS)
{
	int save_errno = errno;

	ShutdownRequestPending = true;
	if (weir_secure_in_user_code())
		weir_secure_cancel_user_code();
	SetLatch(MyLatch);
	errno = save_errno;
}

/*
 * User code that goes on after it was cancelled, having caught that, is not asked
 * again: the process ends at its next check for interrupts.  So it does if user
 * code catches another error at that moment; nothing is lost by it.
 */
static void
end_stubborn(SubXactEvent event, SubTransactionId id, SubTransactionId parent,
			 void *arg)
{
	if (event == SUBXACT_EVENT_ABORT_SUB && weir_secure_is_cancelled())
	{
		ProcDiePending = true;
		InterruptPending = true;
	}
}

/* After the transactions: flow.c's claim relies on it. */
static void
leave(int code, Datum arg)
{
	weir_crash_end();
	weir_order_wait(my_slot, false);
	LWLockAcquire(&weir_shared->directory_lock, LW_EXCLUSIVE);
	if (database != NULL && database->db == me->db)
		database->ended_well[my_index] = code == 0;
	me->in_use = false;
	me->latch = NULL;
	for (int i = 0; i < WEIR_MAX_VIEWS; i++)
		if (weir_shared->views[i].in_use &&
			weir_shared->views[i].worker_pid == MyProcPid)
			weir_shmem_view_let_go(&weir_shared->views[i]);
	for (int i = 0; i < WEIR_MAX_STREAMS; i++)
		if (weir_shared->streams[i].worker == my_slot)
			weir_shared->streams[i].worker = -1;
	LWLockRelease(&weir_shared->directory_lock);
	weir_shmem_wake_launcher();
}

/* Enter workers[]; false: barred, or there is such a worker already. */
static bool
enter(Oid db)
{
	bool barred;
	bool doubled = false;

	LWLockAcquire(&weir_shared->directory_lock, LW_EXCLUSIVE);
	for (int i = 0; i < WEIR_MAX_WORKERS; i++)
	{
		WeirWorkerShared *w = &weir_shared->workers[i];

		if (!w->in_use)
			me = me ? me : w;
		else if (w->db == db && w->index == my_index)
			doubled = true;
	}
	if (me == NULL || doubled)
	{
		LWLockRelease(&weir_shared->directory_lock);
		return false;
	}
	my_slot = me - weir_shared->workers;
	me->db = db;
	me->index = my_index;
	me->pid = MyProcPid;
	me->latch = MyLatch;
	pg_atomic_write_u64(&me->busy_us, 0);
	pg_atomic_write_u64(&me->idle_us, 0);
	pg_atomic_write_u64(&me->batches, 0);
	me->in_use = true;
	LWLockRelease(&weir_shared->directory_lock);
	before_shmem_exit(leave, (Datum) 0);

	database = weir_shmem_database(db, true);
	if (database == NULL)
		return false;
	LWLockAcquire(&weir_shared->directory_lock, LW_SHARED);
	barred = database->bars > 0;
	LWLockRelease(&weir_shared->directory_lock);
	return !barred;
}

/*
 * A worker waits for no standby: with one that is gone it would never come back,
 * nor end at a fast stop.  Whoever committed the events has waited, and WAL has
 * them before the checkpoint that counts them; what a standby lacks when it is
 * promoted, its own workers make of its log.  Of a session, so that the next
 * reload shows what is configured.
 */
static void
follow_config(void)
{
	const char *configured = GetConfigOptionResetString("synchronous_commit");

	SetConfigOption("synchronous_commit",
					strcmp(configured, "off") == 0 ? "off" : "local",
					PGC_USERSET, PGC_S_SESSION);
}

/*
 * Settings that an ALTER DATABASE or a line in postgresql.conf must not give
 * to the worker; what a view's code sees is secure.c's.
 */
static void
set_settings(void)
{
	static const struct
	{
		const char *name;
		const char *value;
	} settings[] = {{"role", "none"},
					{"search_path", "pg_catalog, pg_temp"},
					{"default_transaction_isolation", "read committed"},
					{"default_transaction_read_only", "off"},
					{"default_transaction_deferrable", "off"},
					{"lock_timeout", LOCK_TIMEOUT},
					{"statement_timeout", "0"},
					{"idle_in_transaction_session_timeout", "0"},
					{"transaction_timeout", "0"},
					{"jit", "off"},
					{"max_parallel_workers_per_gather", "0"},
					{"debug_parallel_query", "off"},
					{"force_parallel_mode", "off"}};

	for (int i = 0; i < lengthof(settings); i++)
		if (GetConfigOption(settings[i].name, true, false) != NULL)
			SetConfigOption(settings[i].name, settings[i].value, PGC_SUSET,
							PGC_S_OVERRIDE);
	follow_config();
}

/* 10 ms, 20 ms .. 5 s */
static TimestampTz
retry_time(int *tries)
{
	int64 delay = FIRST_RETRY << Min(*tries, 9);

	(*tries)++;
	return weir_now() + Min(delay, LAST_RETRY);
}

/* What is tried for ever is logged at the 5th try, and then ever more seldom. */
static int
retry_level(int tries)
{
	return tries == SHOW_TRIES ||
				   (tries > SHOW_TRIES && (tries & (tries - 1)) == 0)
			   ? LOG
			   : DEBUG1;
}

/* In a PG_CATCH block outside of subtransactions: back to no transaction. */
static void
abort_and_report(void)
{
	HOLD_INTERRUPTS();
	weir_secure_user_code(false);
	if (!ShutdownRequestPending || geterrcode() != ERRCODE_QUERY_CANCELED)
		EmitErrorReport();
	AbortCurrentTransaction();
	LWLockReleaseAll();
	weir_stream_set_slice(NULL);
	MemoryContextSwitchTo(worker_cxt);
	FlushErrorState();
	RESUME_INTERRUPTS();
}

/*
 * One thing that fails must not keep others from being done.  False: it has failed,
 * or that is what it returns.
 */
static bool
attempt(bool (*duty)(void *arg), void *arg)
{
	volatile bool result = false;

	PG_TRY();
	{
		result = duty(arg);
	}
	PG_CATCH();
	{
		abort_and_report();
	}
	PG_END_TRY();
	MemoryContextSwitchTo(worker_cxt);
	return result;
}

/*
 * User code may have taken advisory locks of the session, and this session is
 * everybody's.
 */
static void
release_advisory_locks(void)
{
	LockReleaseSession(USER_LOCKMETHOD);
}

static void
start_transaction(void)
{
	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
}

static void
commit_transaction(void)
{
	CommitTransactionCommand();
	MemoryContextSwitchTo(worker_cxt);
}

/* Append to a list that outlives the transaction. */
static List *
keep(List *list, void *item)
{
	MemoryContext old = MemoryContextSwitchTo(worker_cxt);

	list = lappend(list, item);
	MemoryContextSwitchTo(old);
	return list;
}

static Stream *
find_stream(Oid oid)
{
	ListCell *lc;
	Stream *s;

	foreach(lc, streams)
	{
		s = lfirst(lc);
		if (s->oid == oid)
			return s;
	}
	s = MemoryContextAllocZero(worker_cxt, sizeof(Stream));
	s->oid = oid;
	s->commit_at = weir_now();
	s->commit_watermark = WEIR_NO_TIME;
	streams = keep(streams, s);
	return s;
}

/* Relcache callback: ALTER TABLE, for one, may have changed the options. */
static void
stream_changed(Datum arg, Oid relid)
{
	ListCell *lc;

	foreach(lc, streams)
	{
		Stream *s = lfirst(lc);

		if (relid == InvalidOid || relid == s->oid)
			s->options_known = false;
	}
}


/* ---------- errors ---------- */

static char *
sqlstate_of(const ErrorData *e)
{
	return pstrdup(unpack_sql_state(e->sqlerrcode));
}

static void
set_failed(Run *run, const char *message)
{
	WeirViewShared *v = run->flow ? run->flow->v : NULL;

	run->failed = true;
	run->failed_resumes = run->loss ? WEIR_LOST : run->resumes;
	leave_cohort(run);
	if (v == NULL)
	{
		v = weir_shmem_view_make(run->view, run->stream, run->generation,
								 run->answering);
		if (v != NULL &&
			weir_shmem_view_claim(v, run->view, run->generation) != 0)
			v = NULL;
	}
	if (v != NULL)
	{
		v->failed_resumes = run->failed_resumes;
		weir_shmem_view_set_status(
			v, run->loss ? WEIR_VIEW_LOST : WEIR_VIEW_FAILED, message);
	}
}

/*
 * A view that could not be opened: its resume has been in vain.  Without a
 * checkpoint there is nothing that could say so, but its status does.
 */
static void
record_unopened(Run *run, const ErrorData *e)
{
	WeirPositionRow row;
	ItemPointerData tid;

	start_transaction();
	PushActiveSnapshot(GetTransactionSnapshot());
	if (ConditionalLockRelationOid(run->view, AccessShareLock) &&
		weir_catalog_position_get(run->view, run->generation, NULL, &row,
								  &tid) &&
		row.failed_resumes < run->resumes)
	{
		row.failed_resumes = run->resumes;
		row.sqlstate = sqlstate_of(e);
		row.error = e->message;
		weir_catalog_error_add(run->view, run->generation, run->stream, NULL,
							   row.sqlstate, row.error);
		(void) weir_catalog_position_put(&row, &tid);
	}
	PopActiveSnapshot();
	commit_transaction();
}

/*
 * The view stops here.  Outside of any transaction.  If it cannot be written
 * down, a restart will find the failure again.
 */
static void
fail_run(Run *run, const ErrorData *e)
{
	ereport(LOG,
			(errcode(e->sqlerrcode),
			 errmsg("continuous view %u has failed: %s", run->view, e->message),
			 errhint("Use weir.resume to continue it after the cause is "
					 "removed.")));
	set_failed(run, e->message);
	PG_TRY();
	{
		if (run->flow == NULL)
			record_unopened(run, e);
		else if (!weir_flow_record_failure(run->flow, run->resumes,
										   sqlstate_of(e), e->message))
			ereport(LOG, (errmsg("continuous view %u has another owner",
								 run->view)));
	}
	PG_CATCH();
	{
		abort_and_report();
	}
	PG_END_TRY();
	MemoryContextSwitchTo(worker_cxt);
	if (run->flow && e->sqlerrcode == ERRCODE_OUT_OF_MEMORY)
		give_up_memory(run);
}

/* In a context of its own: FreeErrorData() leaves some of its strings. */
static ErrorData *
copy_error(void)
{
	ErrorData *e;

	MemoryContextSwitchTo(
		AllocSetContextCreate(worker_cxt, "weir error", ALLOCSET_SMALL_SIZES));
	e = CopyErrorData();
	MemoryContextSwitchTo(worker_cxt);
	return e;
}

static void
free_error(ErrorData *e)
{
	MemoryContextDelete(GetMemoryChunkContext(e));
}

/*
 * In a PG_CATCH block outside of subtransactions: the error, to be freed, and no
 * transaction any more.
 */
static ErrorData *
take_error(void)
{
	ErrorData *e;

	weir_secure_user_code(false);
	e = copy_error();
	FlushErrorState();
	AbortCurrentTransaction();
	MemoryContextSwitchTo(worker_cxt);
	return e;
}

/* Has it been dropped, and we have not heard of it yet? */
static bool
view_is_gone(Run *run)
{
	bool gone;

	start_transaction();
	gone = get_rel_name(run->view) == NULL;
	commit_transaction();
	must_sync = must_sync || gone;
	return gone;
}

/*
 * A view goes on, but its latest try has failed, for no fault of the events.
 * Its status stays and its entry shows why, if that lasts: most is over at the
 * next try.  A view that has no entry yet shows nothing.
 */
static void
show_hindrance(Run *run, Hindrance by, const ErrorData *e, int tries)
{
	WeirViewShared *v = weir_shmem_view_generation(run->view, run->generation);
	bool open = run->flow != NULL;

	if (tries < SHOW_TRIES || run->failed || v == NULL ||
		(!open && weir_shmem_view_claim(v, run->view, run->generation) != 0))
		return;
	weir_shmem_view_set_status(v, pg_atomic_read_u32(&v->status), e->message);
	run->hindered |= by;
	if (!open)
		weir_shmem_view_unclaim(v);
}

/* This has succeeded now. */
static void
hide_hindrance(Run *run, Hindrance by)
{
	bool shown = run->hindered != 0;

	run->hindered &= ~by;
	if (shown && run->hindered == 0 && run->flow != NULL && !run->failed)
		weir_shmem_view_set_status(
			run->flow->v, pg_atomic_read_u32(&run->flow->v->status), NULL);
}

/*
 * What an error outside of batches means for a view at its tries-th try: true,
 * try again later; false, it has failed.
 */
static bool
survives(Run *run, Hindrance by, const ErrorData *e, int tries)
{
	if ((weir_batch_is_transient(e) &&
		 !(weir_batch_is_claim(e) && tries >= WEIR_CLAIM_TRIES)) ||
		view_is_gone(run))
	{
		show_hindrance(run, by, e, tries);
		return true;
	}
	fail_run(run, e);
	return false;
}


/* ---------- cohorts ---------- */

/* One that stands where the run does. */
static Cohort *
make_cohort(const Run *run)
{
	Cohort *c = MemoryContextAllocZero(worker_cxt, sizeof(Cohort));

	c->stream = run->stream;
	c->position = run->flow->position;
	c->watermark = run->flow->watermark;
	c->by_arrival = run->flow->plan->window.by_arrival;
	c->reader = weir_log_reader_create(c->stream, c->position, worker_cxt);
	cohorts = keep(cohorts, c);
	(void) weir_shmem_stream_watch(c->stream, my_slot);
	return c;
}

static void
free_cohort(Cohort *c)
{
	weir_log_reader_free(c->reader);
	cohorts = list_delete_ptr(cohorts, c);
	list_free(c->runs);
	pfree(c);
}

static void
leave_cohort(Run *run)
{
	Cohort *c = run->cohort;

	if (c == NULL)
		return;
	c->runs = list_delete_ptr(c->runs, run);
	run->cohort = NULL;
	/* run_batch may be at work with it; free_empty_cohorts follows */
}

static void
free_empty_cohorts(void)
{
	ListCell *lc;
	List *empty = NIL;

	foreach(lc, cohorts)
		if (((Cohort *) lfirst(lc))->runs == NIL)
			empty = lappend(empty, lfirst(lc));
	foreach(lc, empty)
		free_cohort(lfirst(lc));
	list_free(empty);
}

static bool
level_with(const Cohort *c, const Run *run)
{
	return c->stream == run->stream && c->position == run->flow->position &&
		   c->watermark == run->flow->watermark &&
		   c->by_arrival == run->flow->plan->window.by_arrival;
}

/* Is it one that goes through the next transactions in its own way? */
static bool
goes_alone(const Run *run)
{
	return run->member.careful != WEIR_NO_NUMBER || run->member.part_rows > 0;
}

/* Let a run consume, from where its flow stands. */
static void
join_cohort(Run *run)
{
	Cohort *c = NULL;
	ListCell *lc;

	Assert(run->cohort == NULL);
	if (!goes_alone(run))
	{
		foreach(lc, cohorts)
		{
			Cohort *other = lfirst(lc);

			if (other->runs != NIL && other->next_try == 0 &&
				level_with(other, run))
				c = other;
		}
	}
	if (c == NULL)
		c = make_cohort(run);
	c->runs = keep(c->runs, run);
	run->cohort = c;
}

/* Out of step: go on alone, after a while. */
static void
put_out(Run *run, TimestampTz next_try)
{
	leave_cohort(run);
	run->cohort = make_cohort(run);
	run->cohort->runs = keep(NIL, run);
	run->cohort->next_try = next_try;
}

static bool
has_careful_run(const Cohort *c)
{
	ListCell *lc;

	foreach(lc, c->runs)
		if (goes_alone(lfirst(lc)))
			return true;
	return false;
}

/*
 * The cohort of this one's stream and kind that is furthest on, of those that
 * nothing holds back; NULL: none.
 */
static Cohort *
leader_of(const Cohort *of)
{
	Cohort *leader = NULL;
	ListCell *lc;

	foreach(lc, cohorts)
	{
		Cohort *c = lfirst(lc);

		if (c->stream == of->stream && c->by_arrival == of->by_arrival &&
			c->runs != NIL && c->next_try == 0 && !has_careful_run(c) &&
			(leader == NULL || c->position > leader->position))
			leader = c;
	}
	return leader;
}

static void
merge_cohorts(void)
{
	ListCell *lc;

	foreach(lc, cohorts)
	{
		Cohort *c = lfirst(lc);
		Cohort *leader = leader_of(c);
		ListCell *lc2;

		if (leader == NULL || c == leader || c->runs == NIL ||
			c->next_try != 0 || has_careful_run(c) ||
			c->position != leader->position ||
			c->watermark != leader->watermark)
			continue;
		foreach(lc2, c->runs)
			((Run *) lfirst(lc2))->cohort = leader;
		leader->runs = list_concat(leader->runs, c->runs);
		list_free(c->runs);
		c->runs = NIL;
	}
	free_empty_cohorts();
}


/* ---------- opening and closing runs ---------- */

static void
set_status(Run *run)
{
	WeirViewStatus status;

	if (run->failed)
		return; /* set with its message */
	if (run->paused)
		status = WEIR_VIEW_PAUSED;
	else if (weir_flow_row(run->flow)->built)
		status = WEIR_VIEW_RUNNING;
	else
		status = WEIR_VIEW_BUILDING;
	/* its predecessor may have left an error */
	if (pg_atomic_read_u32(&run->flow->v->status) != (uint32) status ||
		(run->flow->v->error[0] != '\0' && !run->hindered))
		weir_shmem_view_set_status(run->flow->v, status, NULL);
}

static void
schedule_checkpoint(Run *run)
{
	run->last_checkpoint = weir_now();
	run->next_checkpoint =
		run->last_checkpoint + (int64) weir_checkpoint_interval * 1000;
}

/* In a transaction with the stream locked. */
static void
collect_prepared(Oid stream, Relation rel)
{
	Stream *s = find_stream(stream);

	if (s->collected)
		return;
	(void) weir_log_collect_prepared(rel, true);
	s->collected = true;
}

/*
 * Has another worker, that had the view before, swapped in a rebuild since we
 * have read the wishes?
 */
static bool
is_overtaken(Run *run)
{
	WeirPositionRow row;

	return weir_catalog_position_get(run->view, -1, NULL, &row, NULL) &&
		   (row.generation == run->generation) != run->answering;
}

/* Leaves it closed if it is overtaken: the wishes have to be read again. */
static void
open_flow(Run *run)
{
	Relation rel;
	bool overtaken;

	start_transaction();
	PushActiveSnapshot(GetTransactionSnapshot());
	if (is_overtaken(run))
	{
		must_sync = true;
		PopActiveSnapshot();
		commit_transaction();
		return;
	}
	rel = weir_batch_open_stream(run->stream);
	collect_prepared(run->stream, rel);
	weir_secure_user_code(true);
	run->flow =
		weir_flow_open(run->view, run->generation, run->answering, worker_cxt);
	weir_secure_user_code(false);
	pg_atomic_write_u64(&run->flow->v->build_total,
						(uint64) RelationGetNumberOfBlocks(rel) * BLCKSZ);
	relation_close(rel, NoLock);
	/* once more, now that nobody else has it */
	overtaken = is_overtaken(run);
	PopActiveSnapshot();
	commit_transaction();
	if (!overtaken)
		return;
	must_sync = true;
	if (run->answering)
		discard_run(run); /* that generation is over */
	else
		close_run(run);
}

/*
 * Has the view failed for want of memory?  Then its state stays on disk until
 * it is resumed.  That of other failed views is loaded for their readers.
 */
static bool
has_no_memory(Run *run)
{
	WeirPositionRow row;
	bool result;

	start_transaction();
	PushActiveSnapshot(GetTransactionSnapshot());
	result = weir_catalog_position_get(run->view, run->generation, NULL, &row,
									   NULL) &&
			 row.failed_resumes >= run->resumes && row.sqlstate != NULL &&
			 strcmp(row.sqlstate, unpack_sql_state(ERRCODE_OUT_OF_MEMORY)) == 0;
	if (result)
		set_failed(run, row.error);
	PopActiveSnapshot();
	commit_transaction();
	return result;
}

/* An error that is not transient makes the view fail. */
static void
open_run(Run *run)
{
	const WeirPositionRow *row;

	PG_TRY();
	{
		weir_debug_point("view-open");
		if (!has_no_memory(run))
			open_flow(run);
	}
	PG_CATCH();
	{
		/* a flow that could not be made has closed itself */
		ErrorData *e = take_error();

		if (run->flow != NULL)
			close_run(run);

		/* a state that does not fit would take all memory at each try; memory
		 * that this process lacks may be there the next time */
		if (weir_state_is_exhausted(e) && run->tries >= OPEN_TRIES)
			fail_run(run, e);
		else if (survives(run, BY_OPENING, e, run->tries))
		{
			ereport(retry_level(run->tries),
					(errcode(e->sqlerrcode),
					 errmsg_internal("view %u not opened: %s", run->view,
									 e->message)));
			run->next_try = retry_time(&run->tries);
		}
		free_error(e);
		return;
	}
	PG_END_TRY();
	if (run->flow == NULL)
		return;
	run->tries = 0;
	run->batch_tries = 0;
	run->hindered = 0;
	run->next_try = 0;
	run->caught_up = false;
	run->saved = false;
	run->next_expire = weir_now();
	schedule_checkpoint(run);
	row = weir_flow_row(run->flow);
	if (row->failed_resumes >= run->resumes)
	{
		must_sync = must_sync || row->failed_resumes == WEIR_LOST;
		set_failed(run, row->error ? row->error : "unknown error");
	}
	else if (row->failed_resumes >= 0)
	{
		PG_TRY();
		{
			(void) weir_flow_record_failure(run->flow, 0, NULL, NULL);
		}
		PG_CATCH();
		{
			abort_and_report();
		}
		PG_END_TRY();
	}
	run->paused = run->wanted == WEIR_WANT_PAUSE;
	if (run->flow->continues && weir_flow_adopt_lateness(run->flow))
		run->next_checkpoint = weir_now();
	set_status(run);
	if (!run->failed && !run->paused)
		join_cohort(run);
}

static void
close_run(Run *run)
{
	WeirViewShared *v;

	leave_cohort(run);
	weir_batch_forget_skips(&run->member); /* the next may begin before them */
	if (run->flow)
		weir_flow_close(run->flow);
	/* taken to show why it could not be opened */
	else if ((v = weir_shmem_view_generation(run->view, run->generation)) !=
			 NULL)
		weir_shmem_view_unclaim(v);
	run->flow = NULL;
}

/* Free an entry that is ours, or whose worker is dead; others free theirs. */
static void
discard_entry(WeirViewShared *v, Oid view, int64 generation)
{
	if (weir_shmem_view_claim(v, view, generation) != 0)
		return;
	weir_shmem_view_set_status(v, WEIR_VIEW_STOPPED, NULL);
	weir_state_forget(v);
	weir_shmem_view_free(v);
}

/* The view is gone, or this generation of it: so is what memory has of it. */
static void
discard_run(Run *run)
{
	WeirViewShared *v = weir_shmem_view_generation(run->view, run->generation);

	/* before it is closed: then another worker might take it for good */
	if (v != NULL)
		discard_entry(v, run->view, run->generation);
	close_run(run);
}

static void
free_run(Run *run)
{
	runs = list_delete_ptr(runs, run);
	weir_batch_forget_skips(&run->member);
	if (run->loss)
		pfree(unconstify(char *, run->loss));
	pfree(run);
}

static Run *
find_run(Oid view, int64 generation)
{
	ListCell *lc;

	foreach(lc, runs)
	{
		Run *run = lfirst(lc);

		if (run->view == view && run->generation == generation)
			return run;
	}
	return NULL;
}


/* ---------- checkpoints ---------- */

/* What a view of the stream must have reached to have all that is committed. */
static WeirNumber
committed_number(Oid stream)
{
	WeirStreamShared *s = weir_shmem_stream(stream, false);
	WeirNumber result;

	LWLockAcquire(&weir_shared->order_lock, LW_SHARED);
	result = weir_order_last(s, stream);
	LWLockRelease(&weir_shared->order_lock);
	return result;
}

/*
 * Has the view been further on than it is?  Its last worker has died with what
 * belonged to that position.  (A position that was moved beyond all that is
 * committed need not come again.)
 */
static bool
has_gone_back(const Run *run)
{
	return run->flow->position < Min(pg_atomic_read_u64(&run->flow->v->reached),
									 committed_number(run->stream));
}

/*
 * A checkpoint, or, with more, what so many us suffice for of what can be written
 * ahead of it.  Returns false if it failed, or the run with it.
 */
static bool
write_run(Run *run, int64 us, bool *more)
{
	volatile bool ok = true;

	PG_TRY();
	{
		weir_secure_user_code(true);
		if (!(more ? weir_flow_write_ahead(run->flow, us, more)
				   : weir_flow_checkpoint(run->flow)))
		{
			/* another owner: its rows count, ours are forgotten */
			ereport(LOG, (errmsg("continuous view %u has another owner",
								 run->view)));
			discard_run(run);
			run->next_try = retry_time(&run->tries);
			ok = false;
		}
		weir_secure_user_code(false);
	}
	PG_CATCH();
	{
		ErrorData *e = take_error();

		ok = false;
		if (survives(run, BY_SAVING, e, run->tries))
		{
			ereport(retry_level(run->tries),
					(errcode(e->sqlerrcode),
					 errmsg_internal("checkpoint of view %u failed: %s",
									 run->view, e->message)));
			run->next_try = retry_time(&run->tries);
			run->next_checkpoint = run->next_try;
		}
		free_error(e);
	}
	PG_END_TRY();
	MemoryContextSwitchTo(worker_cxt);
	return ok;
}

/*
 * Returns false if the run is not what it was: failed or closed.  Who asked for
 * the checkpoint is told by announce_checkpoint.
 */
static bool
save_run(Run *run)
{
	WeirFlow *flow = run->flow;

	if (weir_flow_dirty(flow) ||
		flow->position != weir_flow_row(flow)->position)
	{
		if (!write_run(run, 0, NULL))
			return false;
		run->log_bytes = 0;
		run->tries = 0;
		run->next_try = 0;
		hide_hindrance(run, BY_SAVING);
	}
	run->saved = run->caught_up || run->paused;
	schedule_checkpoint(run);
	return true;
}

static uint32
wanted_checkpoint(const Run *run)
{
	return pg_atomic_read_u32(&run->flow->v->want_checkpoint);
}

/*
 * Is a checkpoint asked for, and will one now do?  Who asks means what has been
 * visible, also if the worker that showed it is dead.
 */
static bool
answers_request(const Run *run, uint32 wanted)
{
	return wanted != pg_atomic_read_u32(&run->flow->v->done_checkpoint) &&
		   !has_gone_back(run);
}

/* All that was asked for when wanted was read is done. */
static void
announce_checkpoint(Run *run, uint32 wanted)
{
	WeirViewShared *v = run->flow->v;

	if (!answers_request(run, wanted))
		return;
	pg_atomic_write_u32(&v->done_checkpoint, wanted);
	ConditionVariableBroadcast(&v->progress_cv);
}

static bool
checkpoint_run(Run *run)
{
	uint32 wanted = wanted_checkpoint(run);

	if (!save_run(run))
		return false;
	announce_checkpoint(run, wanted);
	return true;
}

/*
 * Rows of final windows are shown from memory until a checkpoint moves them to
 * the heap; when memory gets scarce, or they are not shown, or a key has too many
 * of them, that must not wait.
 */
static bool
must_close(const Run *run)
{
	WeirFlow *flow = run->flow;

	if (flow->options->emit == WEIR_EMIT_LIVE && !weir_flow_piles_up(flow) &&
		!weir_state_memory_is_scarce(flow->v))
		return false;
	return weir_flow_next_end(flow) <= weir_flow_final_before(flow);
}

static bool
checkpoint_is_due(Run *run, TimestampTz now)
{
	if (now < run->next_try)
		return false;
	if (answers_request(run, wanted_checkpoint(run)))
		return true;
	if (run->log_bytes >= CHECKPOINT_LOG ||
		weir_flow_wants_checkpoint(run->flow))
		return true;
	if (now >= run->next_checkpoint)
	{
		if (weir_flow_dirty(run->flow))
			return true;
		run->saved = run->caught_up || run->paused;
		schedule_checkpoint(run);
	}
	return now >= run->last_checkpoint + CLOSE_EVERY && must_close(run);
}

/*
 * Something of a checkpoint that is due can be written ahead of it, so that it
 * takes less time, in which batches wait.  Not if somebody waits for it, or rows
 * of final windows do, or it would come too late.  True: the checkpoint is to come
 * later.
 */
static bool
writes_ahead(Run *run)
{
	TimestampTz now = weir_now();
	int64 late = Max((int64) weir_checkpoint_interval * 1000, AHEAD_LATE);
	int64 us = AHEAD_SLICE;
	bool more = false;

	if (answers_request(run, wanted_checkpoint(run)) ||
		weir_flow_wants_checkpoint(run->flow) || weir_flow_adopts(run->flow) ||
		must_close(run) || run->log_bytes >= CHECKPOINT_LOG ||
		now >= run->next_checkpoint + late)
		return false;
	if (run->ahead_at != 0)
		us = Max(us, Min((now - run->ahead_at) / AHEAD_SHARE, AHEAD_MOST));
	run->ahead_at = 0;
	if (!write_run(run, us, &more))
		return true;
	if (more)
		run->ahead_at = weir_now();
	ahead = ahead || more;
	return more;
}

/*
 * A view that found the state memory full has failed, and the others shall go
 * on: its state goes to disk, where readers find it, and out of memory.
 */
static void
give_up_memory(Run *run)
{
	WeirViewShared *v = run->flow->v;

	(void) checkpoint_run(run);
	if (run->flow == NULL)
		return;
	close_run(run);
	weir_state_discard(v);
}

/* Retention follows checkpoints: only what is on disk may go. */
static int64
retention_interval(void)
{
	return Max((int64) weir_checkpoint_interval * 1000, TICK);
}

static void
expire_rows(Run *run, TimestampTz now, bool all)
{
	run->expire_all = run->expire_all || all;
	if ((now < run->next_expire && !all) || !run->answering)
		return;
	run->next_expire = now + retention_interval();
	PG_TRY();
	{
		weir_flow_expire(run->flow, run->expire_all);
		run->expire_all = false;
	}
	PG_CATCH();
	{
		if (geterrcode() == ERRCODE_LOCK_NOT_AVAILABLE)
		{
			FlushErrorState();
			AbortCurrentTransaction();
			run->next_expire = now + TICK;
		}
		else
			abort_and_report();
	}
	PG_END_TRY();
	MemoryContextSwitchTo(worker_cxt);
}

/*
 * What a checkpoint could not free for somebody's snapshot, when the view has
 * nothing more to checkpoint: it is idle, paused or has failed.
 */
static void
sweep_run(Run *run, TimestampTz now)
{
	if (now < run->next_sweep)
		return;
	run->next_sweep = now + SWEEP_EVERY;
	PG_TRY();
	{
		weir_flow_sweep(run->flow);
	}
	PG_CATCH();
	{
		abort_and_report();
	}
	PG_END_TRY();
	MemoryContextSwitchTo(worker_cxt);
}

static Run *
answering_run(Oid view)
{
	ListCell *lc;

	foreach(lc, runs)
	{
		Run *run = lfirst(lc);

		if (run->view == view && run->answering)
			return run;
	}
	return NULL;
}

static bool
swap_flow(Run *run)
{
	volatile bool swapped = false;

	PG_TRY();
	{
		weir_secure_user_code(true);
		swapped = weir_flow_swap(run->flow);
		weir_secure_user_code(false);
	}
	PG_CATCH();
	{
		ErrorData *e = take_error();

		/* it may have come after the commit */
		swapped = weir_flow_row(run->flow)->answering;
		if (survives(run, BY_SAVING, e, run->tries) && !swapped)
			run->next_try = retry_time(&run->tries);
		free_error(e);
	}
	PG_END_TRY();
	MemoryContextSwitchTo(worker_cxt);
	return swapped;
}

/*
 * Nobody shall see time go back.  And of the windows that a rebuild leaves as
 * they are the old one has to have judged all events, and written that down.
 */
static bool
may_replace(const Run *run, Run *old)
{
	bool keeps = run->flow->kept_through != PG_INT64_MIN;

	if (old->flow == NULL)
		return !keeps;
	if (run->flow->position < old->flow->position)
		return false;
	/* a checkpoint that could not be written is tried again when it is due */
	return !keeps || (run->flow->position == old->flow->position &&
					  old->next_try <= weir_now() && checkpoint_run(old));
}

/* A rebuild that has caught up takes the place of what answers. */
static void
swap_run(Run *run)
{
	Run *old = answering_run(run->view);

	if (old && !old->failed && !may_replace(run, old))
		return;
	if (!checkpoint_run(run) || !swap_flow(run))
		return;
	run->tries = 0;
	hide_hindrance(run, BY_SAVING);
	run->answering = true;
	if (old)
	{
		discard_run(old);
		free_run(old);
	}
	must_sync = true;
}


/* ---------- wishes ---------- */

static int
compare_oids(const ListCell *a, const ListCell *b)
{
	Oid x = lfirst_oid(a);
	Oid y = lfirst_oid(b);

	return (x > y) - (x < y);
}

/* Is the stream at this place of the sorted list this worker's? */
static bool
is_mine(List *sorted, Oid stream, int nworkers)
{
	ListCell *lc;
	int i = 0;

	foreach(lc, sorted)
	{
		if (lfirst_oid(lc) == stream)
			return i % nworkers == my_index;
		i++;
	}
	return false;
}

/* Read before looking, for set_want_workers. */
static uint32
looks_wanted(void)
{
	uint32 result;

	LWLockAcquire(&weir_shared->directory_lock, LW_SHARED);
	result = database->looks_wanted;
	LWLockRelease(&weir_shared->directory_lock);
	return result;
}

/*
 * What has been found.  Whoever made or dropped the extension after we began
 * to look wants another look.
 */
static void
set_want_workers(int n, uint32 looks)
{
	bool changed;

	LWLockAcquire(&weir_shared->directory_lock, LW_EXCLUSIVE);
	changed = database->want_workers != n;
	database->want_workers = n;
	if (database->looks_wanted == looks)
		database->wants_look = false;
	LWLockRelease(&weir_shared->directory_lock);
	if (changed)
		weir_shmem_wake_launcher();
}

/* row: the generation's, or NULL. */
static void
list_run(const WeirWish *wish, int64 generation, bool answering,
		 const WeirPositionRow *row)
{
	Run *run = find_run(wish->view, generation);

	if (run == NULL)
	{
		run = MemoryContextAllocZero(worker_cxt, sizeof(Run));
		run->view = wish->view;
		run->stream = wish->stream;
		run->generation = generation;
		runs = keep(runs, run);
	}
	run->answering = answering;
	run->listed = true;
	run->wanted = wish->wanted;
	run->resumes = wish->resumes;
	if (row != NULL && row->failed_resumes == WEIR_LOST && run->loss == NULL)
		run->loss =
			MemoryContextStrdup(worker_cxt, row->error ? row->error : "lost");
}

/* Which generations of the view shall be there. */
static void
list_view(const WeirWish *wish)
{
	WeirPositionRow row;
	int64 answering = wish->generation;
	bool found;

	found = weir_catalog_position_get(wish->view, -1, NULL, &row, NULL);
	if (found)
		answering = row.generation;
	if (answering > wish->generation)
		elog(ERROR, "view %u has generation %lld, its wish says %lld",
			 wish->view, (long long) answering, (long long) wish->generation);
	list_run(wish, answering, true, found ? &row : NULL);
	if (answering == wish->generation)
		return;

	/* rebuilds that a later REFRESH has overtaken */
	for (int64 g = Max(answering + 1, wish->generation - 16);
		 g < wish->generation; g++)
		if (weir_catalog_position_get(wish->view, g, NULL, &row, NULL))
			weir_catalog_forget_view(wish->view, g);
	found = weir_catalog_position_get(wish->view, wish->generation, NULL, &row,
									  NULL);
	list_run(wish, wish->generation, false, found ? &row : NULL);
}

/* All of the wishes that concern us; in a transaction. */
static void
read_wishes(List **elsewhere, uint32 looks)
{
	List *wishes = weir_catalog_wish_all();
	List *sorted = NIL;
	ListCell *lc;
	int nworkers;

	foreach(lc, wishes)
	{
		WeirWish *wish = lfirst(lc);

		if (wish->wanted != WEIR_WANT_STOP)
			sorted = list_append_unique_oid(sorted, wish->stream);
	}
	list_sort(sorted, compare_oids);
	nworkers = Max(1, Min(weir_max_workers, list_length(sorted)));
	if (my_index == 0)
		set_want_workers(nworkers, looks);
	foreach(lc, wishes)
	{
		WeirWish *wish = lfirst(lc);

		if (wish->wanted == WEIR_WANT_STOP)
			continue;
		if (is_mine(sorted, wish->stream, nworkers))
			list_view(wish);
		else
			*elsewhere = lappend_oid(*elsewhere, wish->view);
	}
}

static bool
has_run_of(Oid view)
{
	ListCell *lc;

	foreach(lc, runs)
		if (((Run *) lfirst(lc))->view == view)
			return true;
	return false;
}

/*
 * Entries that a worker left when it died: of generations of our views that are
 * over; worker 0 looks after the views that are gone.  What looks so may be
 * another's that has heard of a wish before us, or not yet: he is alive.
 */
static void
free_orphans(List *elsewhere)
{
	for (int i = 0; i < WEIR_MAX_VIEWS; i++)
	{
		WeirViewShared *v = &weir_shared->views[i];
		bool found;
		Oid view;
		int64 generation;

		LWLockAcquire(&weir_shared->directory_lock, LW_SHARED);
		found = v->in_use && v->db == MyDatabaseId;
		view = v->view;
		generation = v->generation;
		LWLockRelease(&weir_shared->directory_lock);
		if (!found || find_run(view, generation) != NULL ||
			list_member_oid(elsewhere, view) ||
			(my_index != 0 && !has_run_of(view)))
			continue;
		discard_entry(v, view, generation);
	}
}

static void
follow_wish(Run *run)
{
	if (run->loss != NULL)
	{
		/* what is in memory of it stays, for readers; else they read the blobs */
		if (!run->failed || run->failed_resumes != WEIR_LOST)
			set_failed(run, run->loss);
		return;
	}
	if (run->failed)
	{
		if (run->failed_resumes >= run->resumes)
			return;
		/* read it all anew: what was repaired may be anything */
		run->failed = false;
		run->tries = 0;
		run->next_try = 0;
		close_run(run);
		return; /* the main loop opens it */
	}
	if (run->flow == NULL)
		return;
	if (run->wanted == WEIR_WANT_PAUSE && !run->paused)
	{
		leave_cohort(run);
		run->paused = true;
		(void) checkpoint_run(run);
		if (run->flow && !run->failed)
			set_status(run);
	}
	else if (run->wanted == WEIR_WANT_RUN && run->paused)
	{
		run->paused = false;
		set_status(run);
		join_cohort(run);
	}
}

/*
 * Runs nobody wishes for: of a view that another worker has now, or of one that
 * is gone or stopped, or of a generation that has been overtaken.
 */
static void
retire_runs(List *elsewhere)
{
	List *gone = NIL;
	ListCell *lc;

	foreach(lc, runs)
	{
		Run *run = lfirst(lc);

		if (run->listed)
			continue;
		if (list_member_oid(elsewhere, run->view))
		{
			if (run->flow && !run->failed)
				(void) checkpoint_run(run);
			close_run(run);
		}
		else
			discard_run(run);
		gone = lappend(gone, run);
	}
	foreach(lc, gone)
		free_run(lfirst(lc));
	list_free(gone);
	free_empty_cohorts();
}

/* The streams that no run of ours reads any more. */
static void
forget_streams(void)
{
	ListCell *lc;

	foreach(lc, streams)
	{
		Stream *s = lfirst(lc);
		bool used = false;
		ListCell *lc2;

		foreach(lc2, runs)
			used = used || ((Run *) lfirst(lc2))->stream == s->oid;
		if (used)
			continue;
		streams = foreach_delete_current(streams, lc);
		pfree(s);
	}
}

static void
sync_wishes(void)
{
	MemoryContext cxt = AllocSetContextCreate(worker_cxt, "weir wishes",
											  ALLOCSET_DEFAULT_SIZES);
	List *elsewhere = NIL;
	ListCell *lc;
	uint32 seen = pg_atomic_read_u32(&database->wishes);
	uint32 looks = looks_wanted();

	must_sync = false;
	PG_TRY();
	{
		start_transaction();
		PushActiveSnapshot(GetTransactionSnapshot());
		foreach(lc, runs)
			((Run *) lfirst(lc))->listed = false;
		extension_gone = !OidIsValid(weir_catalog_schema());
		if (extension_gone && weir_catalog_has_extension())
		{
			/* a new one, and our caches still have parts of the old */
			extension_gone = false;
			ereport(ERROR, (errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
							errmsg("extension \"pg_weir\" has just changed")));
		}
		if (!extension_gone)
		{
			MemoryContextSwitchTo(cxt);
			read_wishes(&elsewhere, looks);
		}
		else if (my_index == 0)
			set_want_workers(0, looks);
		PopActiveSnapshot();
		commit_transaction();
		wishes_seen = seen;
	}
	PG_CATCH();
	{
		foreach(lc, runs)
			((Run *) lfirst(lc))->listed = true;
		must_sync = true;
		next_tick = weir_now() + FIRST_RETRY;
		if (geterrcode() == ERRCODE_T_R_SERIALIZATION_FAILURE)
		{
			FlushErrorState();
			AbortCurrentTransaction();
			MemoryContextSwitchTo(worker_cxt);
		}
		else
			abort_and_report();
		MemoryContextDelete(cxt);
		pg_usleep(FIRST_RETRY);
		return;
	}
	PG_END_TRY();

	retire_runs(elsewhere);
	free_orphans(elsewhere);
	foreach(lc, runs)
		follow_wish(lfirst(lc));
	free_empty_cohorts();
	forget_streams();
	MemoryContextDelete(cxt);
}


/* ---------- a batch ---------- */

static void
note_failure(Run *run, const ErrorData *e)
{
	MemoryContext old = MemoryContextSwitchTo(failure_cxt);
	Failure *f = palloc(sizeof(Failure));

	f->run = run;
	f->error = palloc0(sizeof(ErrorData));
	f->error->sqlerrcode = e->sqlerrcode;
	f->error->message = pstrdup(e->message ? e->message : "unknown error");
	failures = lappend(failures, f);
	MemoryContextSwitchTo(old);
}

static bool
stream_has_ended(Oid stream)
{
	WeirStreamShared *s = weir_shmem_stream(stream, false);
	TimestampTz at;

	if (s != NULL && pg_atomic_read_u32(&s->ended) != WEIR_END_UNKNOWN)
		return pg_atomic_read_u32(&s->ended) == WEIR_END_YES;
	return weir_catalog_stream_end(stream, &at);
}

/* Idleness counts from events and heartbeats, not from its own records. */
static void
note_commit(Stream *s, TimestampTz watermark, TimestampTz now, bool events)
{
	if (!events && s->commit_watermark != WEIR_NO_TIME &&
		watermark <= s->commit_watermark + (now - s->commit_at))
		return;
	/* views of a stream that was truncated after its end are past all time */
	if (TIMESTAMP_IS_NOEND(watermark) && !stream_has_ended(s->oid))
		return;
	s->commit_at = now;
	s->commit_watermark = watermark;
}

/*
 * Nothing to take: everything below the horizon is consumed.  Positions must
 * say so where somebody may wait for it.
 */
static void
move_position(Cohort *c, WeirPosition reached)
{
	ListCell *lc;

	if (reached <= c->position)
		return;
	foreach(lc, c->runs)
		weir_flow_publish(((Run *) lfirst(lc))->flow, reached, c->watermark);
	c->position = reached;
}

static void
reached_end(Cohort *c)
{
	Stream *s = find_stream(c->stream);
	ListCell *lc;

	if (s->commit_watermark == WEIR_NO_TIME && !c->by_arrival)
		s->commit_watermark = c->watermark;

	foreach(lc, c->runs)
	{
		Run *run = lfirst(lc);

		run->caught_up = true;
		if (!weir_flow_row(run->flow)->built)
		{
			weir_flow_set_built(run->flow);
			run->next_checkpoint = weir_now(); /* let it be durable soon */
		}
		set_status(run);
	}
}

static void
report_activity(Cohort *c)
{
	Run *run = linitial(c->runs);
	StringInfoData s;

	initStringInfo(&s);
	appendStringInfo(&s, "maintaining %d continuous view%s of stream %s: %s",
					 list_length(c->runs), list_length(c->runs) == 1 ? "" : "s",
					 get_rel_name(c->stream), get_rel_name(run->view));
	pgstat_report_activity(STATE_RUNNING, s.data);
}

/* Has a run of it something to do before it goes on (follow_options)? */
static bool
has_stale_run(const Cohort *c)
{
	ListCell *lc;

	foreach(lc, c->runs)
	{
		const WeirFlow *flow = ((Run *) lfirst(lc))->flow;

		if (weir_flow_is_stale(flow) || weir_flow_adopts(flow))
			return true;
	}
	return false;
}

/* What became of the views in a batch. */
static void
follow_verdicts(Cohort *c, const WeirBatchResult *result)
{
	List *members = list_copy(c->runs);
	ListCell *lc;

	foreach(lc, members)
	{
		Run *run = lfirst(lc);
		const ErrorData *e = run->member.error;

		switch (run->member.verdict)
		{
			case WEIR_BATCH_OK:
				run->log_bytes += result->nbytes;
				run->batch_tries = 0;
				break;
			case WEIR_BATCH_LATER:
				ereport(retry_level(run->batch_tries),
						(errcode(e->sqlerrcode),
						 errmsg_internal("batch of view %u failed: %s",
										 run->view, e->message)));
				show_hindrance(run, BY_BATCH, e, run->batch_tries);
				put_out(run, retry_time(&run->batch_tries));
				break;
			case WEIR_BATCH_AGAIN:
			case WEIR_BATCH_IN_PARTS:
				run->batch_tries = 0; /* it does not meet the same again */
				put_out(run, 0);
				break;
			case WEIR_BATCH_FULL:
				/* at once, or when the one that failed is tried again */
				put_out(run, run->next_try);
				run->next_checkpoint = 0;
				break;
			case WEIR_BATCH_FAILED:
				leave_cohort(run);
				note_failure(run, e);
				break;
			case WEIR_BATCH_LOST:
				Assert(false);
				break;
		}
	}
	list_free(members);
}

/* Bring the next transactions through the cohort.  False: there are none. */
static bool
consume(Cohort *c, Relation rel, WeirNumber limit)
{
	List *members = NIL;
	WeirBatchResult result;
	ListCell *lc;

	foreach(lc, c->runs)
	{
		Run *run = lfirst(lc);

		run->member.flow = run->flow;
		members = lappend(members, &run->member);
	}
	if (!weir_batch_run(rel, c->reader, limit, c->watermark, c->by_arrival,
						members, &result))
		return false;
	follow_verdicts(c, &result);

	/* those who are left are where the reader is */
	c->position = result.position;
	c->watermark = result.watermark;
	if (c->runs == NIL)
		return true;
	if (!c->by_arrival)
		note_commit(find_stream(c->stream), c->watermark, weir_now(),
					result.nrows > 0);
	if (result.at_head || weir_log_reader_is_through(c->reader))
		reached_end(c);
	return true;
}

/*
 * The next transactions of the cohort; true if there were any.  The cohort may
 * have lost runs afterwards, never its place.
 */
static bool
do_batch(Cohort *c)
{
	Cohort *leader = leader_of(c);
	bool leads =
		leader == NULL || leader == c || leader->position < c->position;
	WeirNumber limit = leads ? PG_UINT64_MAX : leader->position;
	WeirNumber reached;
	Relation rel;
	bool any;

	start_transaction();
	weir_debug_point("batch-open");
	rel = weir_batch_open_stream(c->stream);
	report_activity(c);
	weir_debug_point("batch-start");
	(void) weir_log_reader_poll(c->reader, rel);
	/* an ALTER counts for what was committed after it: look once we know what */
	AcceptInvalidationMessages();
	if (has_stale_run(c))
	{
		relation_close(rel, NoLock);
		commit_transaction();
		return true;
	}
	any = consume(c, rel, limit);
	if (!any)
	{
		reached = weir_log_reader_done_before(c->reader) - 1;
		if (!leads || c->position < committed_number(c->stream))
			move_position(c, Min(reached, limit));
		if (c->position >= Min(committed_number(c->stream), limit))
			reached_end(c);
	}
	relation_close(rel, NoLock);
	commit_transaction();
	return any;
}

/*
 * After an error of the cohort as a whole.  Its reader may have given
 * transactions that were not consumed; views that had published already go on
 * alone.
 */
static void
reset_cohort(Cohort *c)
{
	ListCell *lc;
	List *members = list_copy(c->runs);

	weir_log_reader_free(c->reader);
	c->reader = weir_log_reader_create(c->stream, c->position, worker_cxt);
	foreach(lc, members)
	{
		Run *run = lfirst(lc);

		weir_flow_discard(run->flow);
		if (run->flow->position != c->position)
			put_out(run, 0);
	}
	list_free(members);
	c->next_try = retry_time(&c->tries);
}

static bool
run_batch(Cohort *c)
{
	volatile bool any = false;
	List *failed;
	ListCell *lc;

	PG_TRY();
	{
		any = do_batch(c);
		c->tries = 0;
		c->next_try = 0;
		foreach(lc, c->runs)
			hide_hindrance(lfirst(lc), BY_BATCH);
	}
	PG_CATCH();
	{
		ErrorData *e = copy_error();

		if (geterrcode() == ERRCODE_LOCK_NOT_AVAILABLE && c->tries < 5)
		{
			FlushErrorState();
			AbortCurrentTransaction();
			MemoryContextSwitchTo(worker_cxt);
		}
		else
			abort_and_report();
		foreach(lc, c->runs)
			show_hindrance(lfirst(lc), BY_BATCH, e, c->tries);
		free_error(e);
		reset_cohort(c);
		any = false;
	}
	PG_END_TRY();
	pg_atomic_fetch_add_u64(&me->batches, 1);

	/* none is met twice, even if one cannot be told */
	failed = failures;
	failures = NIL;
	foreach(lc, failed)
	{
		Failure *f = lfirst(lc);

		PG_TRY();
		{
			fail_run(f->run, f->error);
		}
		PG_CATCH();
		{
			abort_and_report();
		}
		PG_END_TRY();
	}
	MemoryContextReset(failure_cxt);
	return any;
}


/*
 * The flow's state went with the transaction it was going through in parts: a new
 * one, from the checkpoint, which stands before it.
 */
static void
reopen_run(Run *run)
{
	leave_cohort(run);
	weir_flow_close(run->flow);
	run->flow = NULL;
	open_run(run);
}

static void
follow_parts(Run *run)
{
	ErrorData *e = run->member.error;
	int nskips = run->member.nskips;
	int tries = run->batch_tries;

	if (e && e->sqlerrcode == ERRCODE_UNDEFINED_TABLE && view_is_gone(run))
	{
		discard_run(run); /* we shall hear of it */
		return;
	}
	switch (run->member.verdict)
	{
		case WEIR_BATCH_IN_PARTS:
			reopen_run(run);
			break;
		case WEIR_BATCH_LOST:
			ereport(LOG, (errmsg("continuous view %u has another owner",
								 run->view)));
			discard_run(run);
			run->next_try = retry_time(&run->tries);
			break;
		case WEIR_BATCH_FAILED:
			reopen_run(run);
			if (run->flow &&
				run->flow->options->on_error == WEIR_ON_ERROR_STOP &&
				nskips > 0)
			{
				WeirSkippedRow *skip = &run->member.skips[nskips - 1];

				weir_flow_add_error(run->flow, skip->json, skip->sqlstate,
									skip->message);
			}
			weir_batch_forget_skips(&run->member);
			run->member.part_rows = 0;
			if (!run->failed)
				fail_run(run, e);
			break;
		default:
			ereport(retry_level(tries),
					(errcode(e->sqlerrcode),
					 errmsg_internal("batch of view %u failed: %s", run->view,
									 e->message)));
			reopen_run(run);
			if (run->cohort == NULL)
				break;
			run->batch_tries = tries; /* to open it was not what failed */
			show_hindrance(run, BY_BATCH, e, tries);
			run->cohort->next_try = retry_time(&run->batch_tries);
			break;
	}
}

/* The next transaction of a cohort of one that goes through it in parts. */
static bool
run_parts(Cohort *c)
{
	Run *run = linitial(c->runs);
	volatile bool any = false;
	WeirBatchResult result;

	Assert(list_length(c->runs) == 1);
	run->member.flow = run->flow;
	run->member.error = NULL;
	if (!save_run(run))
	{
		if (run->cohort)
			run->cohort->next_try = run->next_try;
		return false;
	}
	MemoryContextSwitchTo(failure_cxt); /* for member.error */
	PG_TRY();
	{
		any = weir_batch_run_in_parts(c->stream, c->reader, c->watermark,
									  &run->member, &result);
	}
	PG_CATCH();
	{
		abort_and_report();
		if (weir_flow_is_half_through(run->flow))
			reopen_run(run);
		else
			reset_cohort(c);
		any = false;
	}
	PG_END_TRY();
	MemoryContextSwitchTo(worker_cxt);
	pg_atomic_fetch_add_u64(&me->batches, 1);
	if (!any)
		return false;
	if (run->member.verdict != WEIR_BATCH_OK)
	{
		follow_parts(run);
		run->member.error = NULL;
		MemoryContextReset(failure_cxt);
		return true;
	}
	c->position = result.position;
	c->watermark = result.watermark;
	c->tries = 0;
	c->next_try = 0;
	run->log_bytes = 0;
	run->batch_tries = 0;
	hide_hindrance(run, BY_BATCH);
	schedule_checkpoint(run);
	note_commit(find_stream(c->stream), c->watermark, weir_now(),
				result.nrows > 0);
	if (c->position >= committed_number(c->stream))
		reached_end(c);
	return true;
}


/* ---------- once a second ---------- */

/* Does W = target make a window of this stream final? */
static bool
would_close(Oid stream, TimestampTz target)
{
	ListCell *lc;

	foreach(lc, runs)
	{
		Run *run = lfirst(lc);
		WeirFlow *flow = run->flow;
		int64 end;

		if (run->stream != stream || run->cohort == NULL ||
			flow->plan->window.kind == WEIR_WINDOW_NONE ||
			flow->plan->window.by_arrival || target <= flow->watermark)
			continue;
		end = weir_flow_open_end(flow);
		if (end != PG_INT64_MAX &&
			end <= weir_window_final_through(&flow->plan->window,
											 flow->lateness, target))
			return true;
	}
	return false;
}

/* Leaves options_known alone if the stream is locked: look again later. */
static void
read_options(Stream *s)
{
	Relation rel;

	PG_TRY();
	{
		start_transaction();
		if (ConditionalLockRelationOid(s->oid, AccessShareLock))
		{
			s->options_known = true; /* a change from now on resets it */
			s->idle_timeout = 0;
			rel = try_relation_open(s->oid, NoLock);
			if (rel != NULL && weir_catalog_is_stream(rel))
			{
				const WeirStreamOptions *options =
					weir_catalog_stream_options(rel);

				if (options->event_attno != 0)
					s->idle_timeout = options->idle_timeout;
			}
			if (rel != NULL)
				relation_close(rel, NoLock);
		}
		commit_transaction();
	}
	PG_CATCH();
	{
		s->options_known = false;
		PG_RE_THROW();
	}
	PG_END_TRY();
}

/*
 * Has somebody to whom event time matters seen all that is committed?  As long as
 * nobody has, as all are busy or held back, there may have been commits that
 * note_commit does not know of.
 */
static bool
is_seen(Oid stream)
{
	WeirNumber last = committed_number(stream);
	ListCell *lc;

	foreach(lc, cohorts)
	{
		Cohort *c = lfirst(lc);

		if (c->stream == stream && !c->by_arrival && c->position >= last &&
			!weir_log_reader_pending(c->reader))
			return true;
	}
	return false;
}

static bool
advance_idle(void *stream)
{
	Stream *s = stream;
	TimestampTz now = weir_now();
	TimestampTz target;
	Relation rel;

	if (!s->options_known)
		read_options(s);
	if (s->idle_timeout == 0 || s->commit_watermark == WEIR_NO_TIME ||
		TIMESTAMP_IS_NOEND(s->commit_watermark) ||
		now - s->commit_at < s->idle_timeout)
		return false;
	target = Min(s->commit_watermark + (now - s->commit_at), END_TIMESTAMP - 1);
	if (!would_close(s->oid, target) || !is_seen(s->oid))
		return false;

	start_transaction();
	if (!ConditionalLockRelationOid(s->oid, ShareLock))
	{
		/* somebody is writing: that is not idleness */
		commit_transaction();
		s->commit_at = now;
		return false;
	}
	UnlockRelationOid(s->oid, ShareLock);
	rel = try_relation_open(s->oid, RowExclusiveLock);
	if (rel != NULL)
	{
		weir_stream_heartbeat(rel, target, WEIR_RECORD_IDLE);
		relation_close(rel, NoLock);
	}
	commit_transaction();
	return true;
}

/*
 * When the clock reaches the end of a window over now(); DT_NOEND: no such
 * window is open, or something has yet to be consumed, which may close it.
 */
static TimestampTz
clock_closes_at(const Run *run)
{
	const Cohort *c = run->cohort;
	int64 end;

	if (run->flow == NULL || c == NULL || !c->by_arrival || c->next_try != 0 ||
		TIMESTAMP_IS_NOEND(c->watermark) ||
		c->position < committed_number(c->stream) ||
		weir_log_reader_pending(c->reader))
		return DT_NOEND;
	end = weir_flow_open_end(run->flow);
	/* a session may still be joined at its end */
	if (run->flow->plan->window.kind == WEIR_WINDOW_SESSION &&
		end != PG_INT64_MAX)
		end++;
	return IS_VALID_TIMESTAMP(end) ? end : DT_NOEND;
}

/* A record of now, as an end has passed, and nothing has arrived since. */
static void
close_by_clock(Stream *s, TimestampTz now)
{
	Relation rel;
	bool due = false;
	ListCell *lc;

	if (now < s->next_clock)
		return;
	foreach(lc, runs)
	{
		Run *run = lfirst(lc);

		due = due || (run->stream == s->oid && clock_closes_at(run) <= now);
	}
	if (!due)
		return;
	s->next_clock = now + CLOSE_EVERY; /* should it not come to pass */
	start_transaction();
	rel = ConditionalLockRelationOid(s->oid, RowExclusiveLock)
			  ? try_relation_open(s->oid, NoLock)
			  : NULL;
	if (rel != NULL)
	{
		weir_stream_heartbeat(rel, WEIR_NO_TIME, WEIR_RECORD_CLOCK);
		relation_close(rel, NoLock);
		s->next_clock = 0;
	}
	commit_transaction();
}

static void
close_all_by_clock(TimestampTz now)
{
	ListCell *lc;

	PG_TRY();
	{
		foreach(lc, streams)
			close_by_clock(lfirst(lc), now);
	}
	PG_CATCH();
	{
		abort_and_report();
	}
	PG_END_TRY();
	MemoryContextSwitchTo(worker_cxt);
}

/* In this worker the views wait meanwhile. */
#define SUMMARIZE_MS 20

/*
 * Worker 0 looks after the streams of the database: those that keep less than
 * all, or those that VACUUM has been at.
 */
static bool
keeps_less(HeapTuple tuple)
{
	return !heap_attisnull(tuple, Anum_pg_class_reloptions, NULL);
}

static bool
has_visible(HeapTuple tuple)
{
	return ((Form_pg_class) GETSTRUCT(tuple))->relallvisible >= WEIR_RUN_BLOCKS;
}

static List *
streams_that(bool (*matches)(HeapTuple tuple))
{
	List *result = NIL;
	Oid am;
	Relation rel;
	TableScanDesc scan;
	HeapTuple tuple;

	start_transaction();
	am = weir_catalog_stream_am();
	PushActiveSnapshot(GetTransactionSnapshot());
	rel = table_open(RelationRelationId, AccessShareLock);
	scan = table_beginscan_catalog(rel, 0, NULL);
	while (OidIsValid(am) &&
		   (tuple = heap_getnext(scan, ForwardScanDirection)) != NULL)
	{
		Form_pg_class form = (Form_pg_class) GETSTRUCT(tuple);

		if (form->relam != am || form->relkind != RELKIND_RELATION ||
			!matches(tuple))
			continue;
		MemoryContextSwitchTo(worker_cxt);
		result = lappend_oid(result, form->oid);
		MemoryContextSwitchTo(TopTransactionContext);
	}
	table_endscan(scan);
	table_close(rel, AccessShareLock);
	PopActiveSnapshot();
	commit_transaction();
	return result;
}

static bool
trim(void *stream)
{
	return weir_retention_trim(*(Oid *) stream);
}

/* True: somebody else is trimming it. */
static bool
try_trim(Oid stream)
{
	return attempt(trim, &stream);
}

/*
 * Somebody who asked for a checkpoint wants this done when he has his answer.
 * Another worker that is at it may have begun before the checkpoint was there.
 */
#define TRIM_TRIES	  20
#define TRIM_RETRY_MS 10

static void
trim_now(Oid stream)
{
	for (int i = 0;
		 i < TRIM_TRIES && !ShutdownRequestPending && try_trim(stream); i++)
	{
		(void) WaitLatch(MyLatch, WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
						 TRIM_RETRY_MS, PG_WAIT_EXTENSION);
		CHECK_FOR_INTERRUPTS();
	}
}

/*
 * Places in streams[] of streams that are gone though no DROP of ours has seen them
 * go: rolled back, dropped by a prepared transaction, of another access method now.
 * What only another transaction sees yet, that one has locked.
 */
static void
free_places(void)
{
	Oid places[WEIR_MAX_STREAMS];
	int nplaces = 0;

	LWLockAcquire(&weir_shared->directory_lock, LW_SHARED);
	for (int i = 0; i < WEIR_MAX_STREAMS; i++)
	{
		const WeirStreamShared *s = &weir_shared->streams[i];

		if (s->in_use && s->db == MyDatabaseId)
			places[nplaces++] = s->stream;
	}
	LWLockRelease(&weir_shared->directory_lock);
	start_transaction();
	for (int i = 0; i < nplaces; i++)
	{
		if (weir_catalog_is_stream_oid(places[i]) ||
			!ConditionalLockRelationOid(places[i], ExclusiveLock))
			continue;
		if (!weir_catalog_is_stream_oid(places[i]))
			weir_shmem_stream_free(MyDatabaseId, places[i]);
		UnlockRelationOid(places[i], ExclusiveLock);
	}
	commit_transaction();
}

static void
trim_all(void)
{
	List *list = streams_that(keeps_less);
	ListCell *lc;

	foreach(lc, list)
		(void) try_trim(lfirst_oid(lc));
	list_free(list);
}

static bool
summarize_one(void *stream)
{
	return weir_retention_summarize(*(Oid *) stream, SUMMARIZE_MS);
}

/* True if there is more to do. */
static bool
summarize(void)
{
	List *list = streams_that(has_visible);
	bool more = false;
	ListCell *lc;

	foreach(lc, list)
		more = attempt(summarize_one, &lfirst_oid(lc)) || more;
	list_free(list);
	return more;
}

/* In a transaction of its own, so that no two share a number, and what cannot be
 * read stops nobody else. */
static bool
adopt_at(void *place)
{
	start_transaction();
	weir_stream_adopt_at(*(int *) place);
	commit_transaction();
	return true;
}

/*
 * All that wait: after a crash there can be as many as max_prepared_transactions.
 * True: it takes long, and batches come first.
 */
static bool
adopt_prepared(void *unused)
{
	static int place = 0; /* the last that was looked at */
	TimestampTz start;
	bool failed = false;
	int n;

	if (weir_shared->nprepared > 0)
		weir_debug_point("adopt-prepared");
	(void) weir_shmem_prepared(&n);
	start = weir_now();
	for (int i = 0; i < n && weir_shared->nprepared > 0; i++)
	{
		if (ShutdownRequestPending)
			return false;
		if (weir_now() - start >= MAX_ADOPTING)
			return !failed;
		CHECK_FOR_INTERRUPTS();
		place = (place + 1) % n;
		if (weir_stream_has_ended_at(place))
			failed = !attempt(adopt_at, &place) || failed;
	}
	return false;
}

static bool
retention(void *unused)
{
	next_retention = weir_now() + retention_interval();
	trim_all();
	free_places();
	return false;
}

static bool
summaries(void *unused)
{
	next_summaries = weir_now() + retention_interval();
	if (summarize())
		next_summaries = weir_now() + TICK;
	return false;
}

/* What is to be done now and then; when it wants to be done again. */
static int64
tick(TimestampTz now)
{
	bool at_once = my_index == 0 && attempt(adopt_prepared, NULL);
	ListCell *lc;

	must_sync = must_sync || has_orphans();
	foreach(lc, streams)
		(void) attempt(advance_idle, lfirst(lc));
	if (my_index == 0 && now >= next_retention)
		(void) attempt(retention, NULL);
	if (my_index == 0 && now >= next_summaries)
		(void) attempt(summaries, NULL);
	return at_once ? 0 : TICK;
}


/* ---------- the main loop ---------- */

static void
open_runs(TimestampTz now)
{
	List *todo = list_copy(runs);
	ListCell *lc;

	foreach(lc, todo)
	{
		Run *run = lfirst(lc);

		if (run->flow == NULL && !run->failed && run->next_try <= now)
			open_run(run);
	}
	list_free(todo);
}

/* True if any cohort had something to do. */
static bool
run_cohorts(TimestampTz now)
{
	List *todo = list_copy(cohorts);
	ListCell *lc;
	bool busy = false;

	foreach(lc, todo)
	{
		Cohort *c = lfirst(lc);
		Cohort *leader;

		if (c->runs == NIL || c->next_try > now)
			continue;
		leader = leader_of(c);
		if (weir_log_reader_pending(c->reader) ||
			c->position < committed_number(c->stream) ||
			(leader != NULL && leader->position > c->position))
			busy = (((Run *) linitial(c->runs))->member.part_rows > 0
						? run_parts(c)
						: run_batch(c)) ||
				   busy;
	}
	list_free(todo);
	merge_cohorts();
	return busy;
}

/* It goes on no sooner, and does not hold back others. */
static void
hold_back(Run *run, TimestampTz next_try)
{
	if (run->cohort != NULL && list_length(run->cohort->runs) == 1)
		run->cohort->next_try = next_try;
	else if (run->cohort != NULL)
		put_out(run, next_try);
}

/*
 * ALTER, or something else a plan depends on.  An error is the batch's that
 * finds it again, if there ever is one.
 */
static void
replan(Run *run)
{
	PG_TRY();
	{
		start_transaction();
		PushActiveSnapshot(GetTransactionSnapshot());
		relation_close(weir_batch_open_stream(run->stream), NoLock);
		weir_secure_user_code(true);
		weir_flow_replan(run->flow);
		weir_secure_user_code(false);
		PopActiveSnapshot();
		commit_transaction();
		run->plan_tries = 0;
		run->next_plan = 0;
		hide_hindrance(run, BY_PLANNING);
	}
	PG_CATCH();
	{
		ErrorData *e = take_error();

		if (survives(run, BY_PLANNING, e, run->plan_tries))
		{
			run->next_plan = retry_time(&run->plan_tries);
			hold_back(run, run->next_plan);
		}
		free_error(e);
	}
	PG_END_TRY();
}

/*
 * The run's view follows a change of its options.  A new allowed_lateness
 * counts from the position the view has reached, and the view stands still until
 * a checkpoint has written that down; while it goes through what it may have
 * judged before a restart, the old one does.
 */
static void
follow_options(Run *run, TimestampTz now)
{
	if (weir_flow_is_stale(run->flow) && run->next_plan <= now)
		replan(run);
	if (!run->failed &&
		(run->caught_up || run->paused || run->flow->continues) &&
		weir_flow_adopt_lateness(run->flow))
		run->next_checkpoint = now;
}

/*
 * Who asked for a checkpoint until now.  A statement that came before it has
 * told of what it changed, at the latest, when it returned: look at that.  (To
 * look when its wish arrives is too early, its invalidations come after.)
 */
static void
note_requests(void)
{
	bool any = false;
	ListCell *lc;

	foreach(lc, runs)
	{
		Run *run = lfirst(lc);

		if (run->flow == NULL)
			continue;
		run->asked = wanted_checkpoint(run);
		any |= run->asked != pg_atomic_read_u32(&run->flow->v->done_checkpoint);
	}
	if (any)
	{
		start_transaction();
		commit_transaction();
	}
}

static void
run_checkpoints(TimestampTz now)
{
	List *todo;
	List *asked = NIL;
	List *asked_streams = NIL;
	ListCell *lc;

	ahead = false;
	/* who asks for a checkpoint may have changed something before */
	if (pg_atomic_read_u32(&database->wishes) != wishes_seen)
		return;
	note_requests();
	todo = list_copy(runs);
	foreach(lc, todo)
	{
		Run *run = lfirst(lc);
		bool is_asked;

		if (run->flow == NULL)
			continue;
		sweep_run(run, now);
		if (run->failed)
			continue;
		follow_options(run, now);
		if (run->failed)
			continue;
		if (!checkpoint_is_due(run, now))
		{
			if (weir_flow_adopts(run->flow))
				hold_back(run, run->next_try);
			continue;
		}
		if (writes_ahead(run))
			continue;
		if (!save_run(run))
		{
			if (run->flow != NULL && weir_flow_adopts(run->flow))
				hold_back(run, run->next_try);
			continue;
		}
		is_asked = answers_request(run, run->asked);
		if (is_asked)
		{
			asked = lappend(asked, run);
			asked_streams = list_append_unique_oid(asked_streams, run->stream);
		}
		expire_rows(run, now, is_asked);
	}
	/* who asks for a checkpoint wants all that follows from one */
	foreach(lc, asked_streams)
		trim_now(lfirst_oid(lc));
	foreach(lc, asked)
	{
		Run *run = lfirst(lc);

		announce_checkpoint(run, run->asked);
	}
	list_free(asked);
	list_free(asked_streams);

	foreach(lc, todo)
	{
		Run *run = lfirst(lc);

		if (run->flow != NULL && !run->failed && !run->answering &&
			!run->paused && run->next_try <= now &&
			weir_flow_row(run->flow)->built)
		{
			swap_run(run); /* frees the one it replaces */
			break;
		}
	}
	list_free(todo);
	free_empty_cohorts();
}

/* How long nothing will be to do, in ms. */
static long
idle_time(TimestampTz now)
{
	TimestampTz next = now + 10 * USECS_PER_SEC;
	bool ticks = weir_shared->nprepared > 0;
	ListCell *lc;

	foreach(lc, streams)
	{
		Stream *s = lfirst(lc);

		if (s->idle_timeout > 0 || !s->options_known)
			ticks = true;
	}
	if (ticks || my_index == 0)
		next = Min(next, Max(next_tick, now));
	foreach(lc, cohorts)
	{
		Cohort *c = lfirst(lc);

		if (c->next_try != 0)
			next = Min(next, c->next_try);
	}
	foreach(lc, runs)
	{
		Run *run = lfirst(lc);

		if (run->flow != NULL && weir_state_has_stamps(run->flow->state))
			next = Min(next, Max(run->next_sweep, now));
		if (run->failed)
			continue;
		if (run->next_try != 0)
			next = Min(next, run->next_try);
		if (run->next_plan != 0)
			next = Min(next, run->next_plan);
		if (run->flow == NULL)
			continue;
		next = Min(next, run->next_checkpoint);
		next = Min(next, Max(clock_closes_at(run),
							 find_stream(run->stream)->next_clock));
		if (must_close(run))
			next = Min(next, run->last_checkpoint + CLOSE_EVERY);
	}
	return Max((next - now) / 1000, 0) + 1;
}

/*
 * Ask to be woken when a commit that holds us back is through.  True: it is.
 */
static bool
horizon_has_moved(void)
{
	bool waits = false;
	ListCell *lc;

	foreach(lc, cohorts)
		waits = waits || weir_log_reader_waits(((Cohort *) lfirst(lc))->reader);
	if (!waits)
		return false;
	weir_order_wait(my_slot, true);
	foreach(lc, cohorts)
	{
		WeirLogReader *reader = ((Cohort *) lfirst(lc))->reader;

		if (weir_log_reader_waits(reader) && weir_log_reader_pending(reader))
			return true;
	}
	return false;
}

/*
 * Has this process done, once, what it will have to do again if it crashes:
 * replayed the log, and written a checkpoint?  If that takes long, a crash then
 * would not be one of many.
 */
static bool
has_got_through(TimestampTz now)
{
	ListCell *lc;

	if (now >= trace_until)
		return true;
	if (must_sync)
		return false;
	foreach(lc, runs)
	{
		Run *run = lfirst(lc);

		if (!run->failed && !run->saved &&
			(run->flow == NULL || weir_flow_dirty(run->flow) ||
			 !(run->caught_up || run->paused)))
			return false;
	}
	return true;
}

static void
remove_trace(void)
{
	if (trace_until == 0 || !has_got_through(weir_now()))
		return;
	weir_crash_end();
	trace_until = 0;
}

static void
iterate(void)
{
	TimestampTz start = weir_now();
	TimestampTz end;
	bool busy;

	if (ConfigReloadPending)
	{
		ConfigReloadPending = false;
		ProcessConfigFile(PGC_SIGHUP);
		follow_config();
		must_sync = true;
	}
	ProcessCatchupInterrupt();
	CHECK_FOR_INTERRUPTS();
	if (must_sync || pg_atomic_read_u32(&database->wishes) != wishes_seen)
		sync_wishes();
	if (extension_gone)
		return;
	open_runs(start);
	busy = run_cohorts(start);
	run_checkpoints(weir_now());
	close_all_by_clock(weir_now());
	remove_trace();
	if (weir_now() >= next_tick)
	{
		int64 delay = tick(weir_now());

		next_tick = weir_now() + delay;
	}
	release_advisory_locks();
	end = weir_now();
	pg_atomic_fetch_add_u64(&me->busy_us, end - start);
	if (busy || ahead || horizon_has_moved())
		return;
	pgstat_report_activity(STATE_IDLE, NULL);
	(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
					 idle_time(end), PG_WAIT_EXTENSION);
	pg_atomic_fetch_add_u64(&me->idle_us, weir_now() - end);
}

/*
 * So that the next start need not replay; what is in the way may be gone in a
 * moment.
 */
static bool
last_checkpoint(Run *run, TimestampTz until)
{
	for (int i = 0; i < LAST_TRIES && run->flow != NULL && !run->failed; i++)
	{
		long left = TimestampDifferenceMilliseconds(weir_now(), until);
		bool saved;

		if (i > 0)
			pg_usleep(FIRST_RETRY);
		weir_secure_last_words();
		/* a view's function that does not end is not to keep the server */
		enable_timeout_after(STATEMENT_TIMEOUT, Max(left, LAST_MS_AT_LEAST));
		saved = checkpoint_run(run);
		disable_timeout(STATEMENT_TIMEOUT, false);
		if (saved)
			return true;
		if (weir_now() >= until)
			break;
		if (view_is_gone(run))
			return false;
	}
	if (!run->failed)
		ereport(LOG,
				(errmsg("no last checkpoint of continuous view %u", run->view),
				 errdetail("The next start replays the log from the one "
						   "before.")));
	return false;
}

/*
 * Worker 0: is there an entry that nobody runs and this worker does not know?
 * One whose worker has ended since we looked, or when its view was dropped.
 */
static bool
has_orphans(void)
{
	bool result = false;

	if (my_index != 0)
		return false;
	LWLockAcquire(&weir_shared->directory_lock, LW_SHARED);
	for (int i = 0; i < WEIR_MAX_VIEWS && !result; i++)
	{
		WeirViewShared *v = &weir_shared->views[i];

		result = v->in_use && v->db == MyDatabaseId && v->worker_pid == 0 &&
				 find_run(v->view, v->generation) == NULL;
	}
	LWLockRelease(&weir_shared->directory_lock);
	return result;
}

/* Write down what is in memory, and let go of it. */
static void
finish(void)
{
	TimestampTz until = weir_now() + LAST_SECONDS * USECS_PER_SEC;
	List *todo = list_copy(runs);
	ListCell *lc;

	foreach(lc, todo)
	{
		Run *run = lfirst(lc);

		if (run->flow == NULL)
			continue;
		if (extension_gone ||
			(!last_checkpoint(run, until) && view_is_gone(run)))
			discard_run(run);
		else
			close_run(run);
	}
	free_empty_cohorts();
}

/* A worker that its database no longer needs. */
static bool
is_superfluous(void)
{
	bool result;

	LWLockAcquire(&weir_shared->directory_lock, LW_SHARED);
	result = database->db != MyDatabaseId ||
			 (!database->wants_look && database->want_workers <= my_index);
	LWLockRelease(&weir_shared->directory_lock);
	return result || extension_gone;
}

void
weir_worker_main(Datum arg)
{
	Oid db;

	my_index = DatumGetInt32(arg);
	memcpy(&db, MyBgworkerEntry->bgw_extra, sizeof(db));
	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	pqsignal(SIGTERM, handle_sigterm);
	weir_crash_watch(db, my_index);
	trace_until = weir_now() + TRACE_FOR;
	BackgroundWorkerUnblockSignals();
	if (!enter(db))
	{
		weir_crash_end();
		proc_exit(0);
	}
	BackgroundWorkerInitializeConnectionByOid(db, InvalidOid, 0);
	set_settings();
	weir_stream_in_worker = true;
	worker_cxt = AllocSetContextCreate(TopMemoryContext, "weir worker",
									   ALLOCSET_DEFAULT_SIZES);
	failure_cxt = AllocSetContextCreate(worker_cxt, "weir failures",
										ALLOCSET_SMALL_SIZES);
	CacheRegisterRelcacheCallback(stream_changed, (Datum) 0);
	RegisterSubXactCallback(end_stubborn, NULL);
	MemoryContextSwitchTo(worker_cxt);
	next_retention = weir_now() + TICK;
	next_summaries = weir_now() + 2 * TICK;

	while (!ShutdownRequestPending && !(must_sync ? false : is_superfluous()))
	{
		ResetLatch(MyLatch);
		PG_TRY();
		{
			iterate();
		}
		PG_CATCH();
		{
			abort_and_report();
		}
		PG_END_TRY();
		MemoryContextSwitchTo(worker_cxt);
		pgstat_report_stat(false);
	}
	finish();
	proc_exit(0);
}
