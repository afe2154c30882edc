/*-------------------------------------------------------------------------
 *
 * stats.c
 *	  SQL functions that read, wait or ask: wait_for, watermark,
 *	  advance_watermark, summarize, pause, resume, checkpoint, explain, and
 *	  the functions behind the views weir.streams, weir.views, weir.workers,
 *	  weir.errors.
 *
 * Counters come from shared memory while the view has an entry there, else
 * from its position row, i.e. from the last checkpoint.  Nothing here writes
 * a catalog row but the wish of weir.pause and weir.resume, and the summaries of
 * weir.summarize.
 *
 * Who sees what: a row of a stream or view is shown to those who may SELECT
 * from it, and only they can wait for it by name; the text of errors, which may
 * quote events, to members of the owner's role.
 *
 * Waiting is done without any relation lock of our own: a worker may want it.
 * The caller's transaction may hold others, so who waits looks every
 * deadlock_timeout whether the process waited for is blocked by this one.
 *
 * Locks: order_lock and publish_lock shared, for single fields or some ring
 * entries at a time; directory_lock shared, never together with them.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/heapam.h"
#include "access/relation.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "catalog/objectaccess.h"
#include "catalog/pg_class.h"
#include "catalog/pg_type.h"
#include "common/int.h"
#include "executor/executor.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "funcapi.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "storage/bufmgr.h"
#include "storage/condition_variable.h"
#include "storage/latch.h"
#include "storage/lmgr.h"
#include "storage/lock.h"
#include "storage/proc.h"
#include "tcop/tcopprot.h"
#include "utils/acl.h"
#include "utils/array.h"
#include "utils/backend_status.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/lsyscache.h"
#include "utils/regproc.h"
#include "utils/rel.h"
#include "utils/rls.h"
#include "utils/ruleutils.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"
#include "utils/wait_event.h"

#include "aggregate.h"
#include "catalog.h"
#include "compat.h"
#include "debug.h"
#include "guc.h"
#include "log.h"
#include "log_summary.h"
#include "order.h"
#include "plan.h"
#include "secure.h"
#include "shmem.h"
#include "state.h"
#include "stats.h"
#include "stream.h"

PG_FUNCTION_INFO_V1(weir_stats_wait_for);
PG_FUNCTION_INFO_V1(weir_stats_watermark);
PG_FUNCTION_INFO_V1(weir_stats_advance_watermark);
PG_FUNCTION_INFO_V1(weir_stats_summarize);
PG_FUNCTION_INFO_V1(weir_stats_pause);
PG_FUNCTION_INFO_V1(weir_stats_resume);
PG_FUNCTION_INFO_V1(weir_stats_checkpoint);
PG_FUNCTION_INFO_V1(weir_stats_explain);
PG_FUNCTION_INFO_V1(weir_stats_streams);
PG_FUNCTION_INFO_V1(weir_stats_views);
PG_FUNCTION_INFO_V1(weir_stats_workers);
PG_FUNCTION_INFO_V1(weir_stats_errors_visible);

/* ---------------------------------------------------------------------- */
/* relations named by a caller                                             */
/* ---------------------------------------------------------------------- */

static void
report_no_relation(Oid relid)
{
	ereport(ERROR, (errcode(ERRCODE_UNDEFINED_TABLE),
					errmsg("relation with OID %u does not exist", relid)));
}

/* Raises unless relid is a continuous view; takes no lock that stays. */
static void
require_view(Oid relid)
{
	if (!OidIsValid(relid) ||
		!SearchSysCacheExists1(RELOID, ObjectIdGetDatum(relid)))
		report_no_relation(relid);
	if (!weir_catalog_is_continuous_oid(relid))
		ereport(ERROR, (errcode(ERRCODE_WRONG_OBJECT_TYPE),
						errmsg("\"%s\" is not a continuous view",
							   get_rel_name(relid))));
}

/* Nobody may from one that is gone: lists of streams and views go on without. */
static bool
may_select(Oid relid)
{
	bool missing = false;

	return pg_class_aclcheck_ext(relid, GetUserId(), ACL_SELECT, &missing) ==
			   ACLCHECK_OK &&
		   !missing;
}

/* Opens what the caller has named; its OID may be any number. */
static Relation
open_named(Oid relid, LOCKMODE mode)
{
	Relation rel = try_relation_open(relid, mode);

	if (rel == NULL)
		report_no_relation(relid);
	return rel;
}

static Oid
owner_of(Oid relid)
{
	HeapTuple tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(relid));
	Oid owner;

	if (!HeapTupleIsValid(tuple))
		return InvalidOid;
	owner = ((Form_pg_class) GETSTRUCT(tuple))->relowner;
	ReleaseSysCache(tuple);
	return owner;
}

/* ---------------------------------------------------------------------- */
/* waiting                                                                 */
/* ---------------------------------------------------------------------- */

/*
 * Does this process, directly or through others, block that one's lock?
 */
static bool
blocked_by_me(int pid)
{
	int todo[64];
	int ntodo = 1;

	todo[0] = pid;
	for (int i = 0; i < ntodo; i++)
	{
		ArrayType *blockers;
		int n;

		blockers = DatumGetArrayTypeP(
			DirectFunctionCall1(pg_blocking_pids, Int32GetDatum(todo[i])));
		n = ArrayGetNItems(ARR_NDIM(blockers), ARR_DIMS(blockers));
		for (int j = 0; j < n; j++)
		{
			int blocker = ((int32 *) ARR_DATA_PTR(blockers))[j];
			bool known = false;

			if (blocker == MyProcPid)
				return true;
			for (int k = 0; k < ntodo; k++)
				known = known || todo[k] == blocker;
			if (!known && blocker != 0 && ntodo < lengthof(todo))
				todo[ntodo++] = blocker;
		}
	}
	return false;
}

/*
 * A worker takes its locks conditionally, so it is never seen to be blocked.
 * Raise if this session itself holds a lock on the relation that keeps the
 * worker away: this mode or a stronger one.
 */
static void
check_own_lock(Oid relid, LOCKMODE mode)
{
	Relation rel = RelationIdGetRelation(relid);
	bool held;

	if (!RelationIsValid(rel))
		return;
	held = CheckRelationLockedByMe(rel, mode, true);
	if (held)
		ereport(
			ERROR,
			(errcode(ERRCODE_T_R_DEADLOCK_DETECTED),
			 errmsg("deadlock detected"),
			 errdetail(
				 "This session holds a lock on \"%s\" which a worker that it waits for needs.",
				 RelationGetRelationName(rel)),
			 errhint("End the transaction before waiting.")));
	RelationClose(rel);
}

static bool
is_worker(int pid)
{
	for (int i = 0; i < WEIR_MAX_WORKERS; i++)
	{
		if (weir_shared->workers[i].in_use &&
			weir_shared->workers[i].pid == pid)
			return true;
	}
	return false;
}

static TimestampTz
add_timeout(TimestampTz start, int64 timeout_us)
{
	TimestampTz end;

	if (pg_add_s64_overflow(start, timeout_us, &end))
		return DT_NOEND;
	return end;
}

bool
weir_stats_wait(bool (*cond)(void *arg), void *arg, int64 timeout_us,
				int (*waits_for)(void *arg))
{
	TimestampTz now = weir_now();
	TimestampTz end = add_timeout(now, timeout_us);
	TimestampTz next_check =
		add_timeout(now, DeadlockTimeout * INT64CONST(1000));
	int64 nap = 1; /* ms */

	if (is_worker(MyProcPid))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("a worker cannot wait for continuous views"),
				 errdetail("A function of a view that it maintains would wait "
						   "for the worker itself.")));
	for (;;)
	{
		int64 sleep = nap;

		/* reset first: a wake-up after the test must not be lost */
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
		if (cond(arg))
			return true;
		now = weir_now();
		if (now >= end)
			return false;
		if (waits_for != NULL && now >= next_check)
		{
			int pid = waits_for(arg);

			if (pid != 0 && blocked_by_me(pid))
				ereport(
					ERROR,
					(errcode(ERRCODE_T_R_DEADLOCK_DETECTED),
					 errmsg("deadlock detected"),
					 errdetail(
						 "Process %d waits for pg_weir's worker %d, which is blocked by a lock of this session.",
						 MyProcPid, pid),
					 errhint("End the transaction before waiting.")));
			next_check = add_timeout(now, DeadlockTimeout * INT64CONST(1000));
		}
		sleep = Min(sleep, (end - now) / 1000 + 1);
		(void) WaitLatch(MyLatch,
						 WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
						 (long) sleep, PG_WAIT_EXTENSION);
		nap = Min(nap * 2, 50);
	}
}

/* An interval given as a timeout, in microseconds. */
static int64
timeout_from(const Interval *iv)
{
	int64 days = (int64) iv->month * DAYS_PER_MONTH + iv->day;
	int64 result;

	if (pg_mul_s64_overflow(days, USECS_PER_DAY, &result) ||
		pg_add_s64_overflow(result, iv->time, &result))
		result = days < 0 ? -1 : PG_INT64_MAX;
	if (result < 0)
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("timeout must not be negative")));
	return result;
}

/* ---------------------------------------------------------------------- */
/* the state of a view, as users see it                                    */
/* ---------------------------------------------------------------------- */

typedef enum ViewCondition
{
	COND_RUNNING,
	COND_BUILDING,
	COND_PAUSED,
	COND_STOPPED,
	COND_FAILED,
	COND_LOST,
	COND_STANDBY
} ViewCondition;

static const char *const condition_names[] = {
	[COND_RUNNING] = "running", [COND_BUILDING] = "building",
	[COND_PAUSED] = "paused",	[COND_STOPPED] = "stopped",
	[COND_FAILED] = "failed",	[COND_LOST] = "lost",
	[COND_STANDBY] = "standby",
};

/*
 * What the view is doing or is about to do: the wish counts where a worker has
 * not yet followed it.  v is the entry of what answers, row that of the
 * generation that shall be or else of what answers; both may be NULL.  That of
 * one that could not be opened was perhaps never written, or is not of the last
 * resume: its own entry says that it has failed.
 */
static ViewCondition
view_condition(const WeirWish *wish, WeirViewShared *v,
			   const WeirPositionRow *row)
{
	WeirViewStatus status = WEIR_VIEW_STARTING;
	WeirViewShared *last =
		weir_shmem_view_generation(wish->view, wish->generation);

	if (RecoveryInProgress())
		return COND_STANDBY;
	if (v != NULL)
		status = pg_atomic_read_u32(&v->status);

	if (wish->wanted == WEIR_WANT_STOP)
		return COND_STOPPED;
	/* a pending rebuild is the cure of a loss or a failure */
	if (row != NULL && row->failed_resumes == WEIR_LOST &&
		row->generation == wish->generation)
		return COND_LOST;
	if (row != NULL && row->failed_resumes >= 0 &&
		row->failed_resumes >= wish->resumes &&
		row->generation == wish->generation)
		return COND_FAILED;
	if (last != NULL && pg_atomic_read_u32(&last->status) == WEIR_VIEW_FAILED)
	{
		/* not if it has been resumed since */
		pg_read_barrier();
		if (last->failed_resumes >= wish->resumes)
			return COND_FAILED;
	}
	if (wish->wanted == WEIR_WANT_PAUSE)
		return COND_PAUSED;
	if (v == NULL || status != WEIR_VIEW_RUNNING ||
		wish->generation != v->generation)
		return COND_BUILDING;
	return COND_RUNNING;
}

/* The generation's position row as of now; false: none yet. */
static bool
position_now(Oid view, int64 generation, WeirPositionRow *row)
{
	ItemPointerData tid;

	return weir_catalog_position_get(view, generation, NULL, row, &tid);
}

/*
 * The view's condition with all that is needed fetched; false: no such view
 * any more.
 */
static bool
condition_now(Oid view, WeirWish *wish, ViewCondition *condition)
{
	WeirPositionRow row;
	bool has_row;

	if (!weir_catalog_wish_get(view, wish))
		return false;
	has_row = position_now(view, wish->generation, &row) ||
			  position_now(view, -1, &row);
	*condition =
		view_condition(wish, weir_shmem_view(view), has_row ? &row : NULL);
	return true;
}

/* ---------------------------------------------------------------------- */
/* weir.wait_for                                                           */
/* ---------------------------------------------------------------------- */

typedef struct ViewWait
{
	Oid view;
	Oid stream;
	bool named; /* by the caller: problems are errors */
	WeirNumber target;
	TimestampTz next_look; /* at the wish and position rows */
	bool unnumbered;	   /* a prepared transaction may have committed that
							* waited for its number, which target does not
							* cover */
	bool gone;			   /* dropped, or skipped with a warning */
} ViewWait;

static void
report_not_running(Oid view, bool named, ViewCondition condition)
{
	char *name = get_rel_name(view);

	ereport(named ? ERROR : WARNING,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("continuous view \"%s\" is not running", name ? name : "?"),
			 errdetail("Its state is \"%s\".", condition_names[condition]),
			 condition == COND_PAUSED || condition == COND_FAILED
				 ? errhint("Use weir.resume to continue it.")
			 : condition == COND_STOPPED
				 ? errhint("Use REFRESH MATERIALIZED VIEW to start it.")
			 : condition == COND_LOST
				 ? errhint("Use REFRESH MATERIALIZED VIEW to rebuild it from "
						   "the events that are left, or drop it.")
				 : 0));
}

static bool
view_has_consumed(void *arg)
{
	ViewWait *wait = arg;
	WeirViewShared *v = weir_shmem_view(wait->view);
	WeirWish wish;
	ViewCondition condition;
	TimestampTz now;
	bool reached = false;

	if (v != NULL)
	{
		/* publishes and changes of status set our latch from here on */
		ConditionVariablePrepareToSleep(&v->progress_cv);
		reached = pg_atomic_read_u64(&v->position) >= wait->target &&
				  pg_atomic_read_u32(&v->status) == WEIR_VIEW_RUNNING &&
				  v->state_valid;
	}
	if (reached && weir_log_has_unnumbered(wait->stream))
	{
		wait->unnumbered = true;
		reached = false;
	}
	else if (reached && wait->unnumbered)
	{
		wait->target = weir_order_committed(wait->stream);
		wait->unnumbered = false;
		reached = pg_atomic_read_u64(&v->position) >= wait->target;
	}
	if (reached)
	{
		/* a REFRESH that has not been swapped in is waited for */
		if (!weir_catalog_wish_get(wait->view, &wish))
			wait->gone = true;
		if (wait->gone ||
			(wish.generation == v->generation && wish.wanted == WEIR_WANT_RUN))
			return true;
	}

	now = weir_now();
	if (now < wait->next_look)
		return false;
	wait->next_look = now + 50 * INT64CONST(1000);
	if (!condition_now(wait->view, &wish, &condition))
	{
		if (wait->named)
			ereport(ERROR, (errcode(ERRCODE_UNDEFINED_TABLE),
							errmsg("continuous view with OID %u was dropped",
								   wait->view)));
		wait->gone = true;
	}
	else if (condition != COND_RUNNING && condition != COND_BUILDING)
	{
		if (wait->named || may_select(wait->view))
			report_not_running(wait->view, wait->named, condition);
		wait->gone = true;
	}
	return wait->gone;
}

static int
worker_of_view(void *arg)
{
	ViewWait *wait = arg;
	WeirViewShared *v = weir_shmem_view(wait->view);

	check_own_lock(wait->view, AccessExclusiveLock);
	check_own_lock(wait->stream, AccessExclusiveLock);
	return v == NULL ? 0 : v->worker_pid;
}

/* Takes no lock: the view may be locked for longer than the caller waits. */
static bool
created_here(Oid relid)
{
	Relation rel = RelationIdGetRelation(relid);
	bool result;

	if (!RelationIsValid(rel))
		return false;
	result = rel->rd_createSubid != InvalidSubTransactionId;
	RelationClose(rel);
	return result;
}

static bool
wait_for_view(Oid view, Oid stream, bool named, int64 timeout_us)
{
	ViewWait wait = {.view = view,
					 .stream = stream,
					 .named = named,
					 .next_look = DT_NOBEGIN};
	WeirViewShared *v = weir_shmem_view(view);
	bool result;

	/* who opens the view looks for prepared transactions: before, all may be */
	wait.unnumbered =
		v == NULL || !v->state_valid || weir_log_has_unnumbered(stream);
	wait.target = weir_order_committed(stream);

	/* no worker can see it before we commit */
	if (created_here(view))
	{
		if (!named)
			return true;
		ereport(
			ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("continuous view \"%s\" was created in this transaction",
					get_rel_name(view)),
			 errhint("Commit before waiting for it.")));
	}
	result =
		weir_stats_wait(view_has_consumed, &wait, timeout_us, worker_of_view);
	ConditionVariableCancelSleep();
	return result;
}

/*
 * weir.wait_for(view regclass, timeout interval)
 *
 * A view that is named has to be one that the caller may read, as in weir.views.
 * Anyone may wait for all: that tells nothing of any of them.
 */
Datum
weir_stats_wait_for(PG_FUNCTION_ARGS)
{
	TimestampTz end;
	int64 timeout_us;
	WeirWish wish;
	bool result = true;
	ListCell *lc;

	weir_shmem_require();
	if (PG_ARGISNULL(1))
		ereport(ERROR, (errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
						errmsg("timeout must not be null")));
	timeout_us = timeout_from(PG_GETARG_INTERVAL_P(1));
	if (RecoveryInProgress())
		ereport(ERROR, (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
						errmsg("continuous views do not run on a standby"),
						errhint("They answer from the last checkpoint that has "
								"arrived here; wait on the primary.")));

	if (!PG_ARGISNULL(0))
	{
		Oid view = PG_GETARG_OID(0);

		require_view(view);
		if (!may_select(view))
		{
			require_view(view); /* it may be gone since */
			aclcheck_error(ACLCHECK_NO_PRIV, OBJECT_MATVIEW,
						   get_rel_name(view));
		}
		if (!weir_catalog_wish_get(view, &wish))
			elog(ERROR, "continuous view %u has no entry in weir.view_wish",
				 view);
		PG_RETURN_BOOL(wait_for_view(view, wish.stream, true, timeout_us));
	}

	end = add_timeout(weir_now(), timeout_us);
	foreach(lc, weir_catalog_wish_all())
	{
		WeirWish *w = lfirst(lc);

		if (!wait_for_view(w->view, w->stream, false, Max(end - weir_now(), 0)))
			result = false;
	}
	PG_RETURN_BOOL(result);
}

/* ---------------------------------------------------------------------- */
/* watermarks                                                              */
/* ---------------------------------------------------------------------- */

/* W of a stream, WEIR_NO_TIME before the first event, and where it is from. */
static void
stream_mark(Relation rel, WeirWatermark *mark)
{
	Oid relid = RelationGetRelid(rel);
	WeirStreamShared *s = NULL;
	bool valid = false;

	/* what a standby replays is not published: look each time, keep nothing */
	if (weir_shared != NULL && !RecoveryInProgress())
		s = weir_shmem_stream(relid, true);
	if (s != NULL)
	{
		LWLockAcquire(&weir_shared->order_lock, LW_SHARED);
		valid = s->watermark_valid && s->stream == relid;
		*mark = s->mark;
		LWLockRelease(&weir_shared->order_lock);
	}
	if (!valid)
	{
		Snapshot snapshot = RegisterSnapshot(GetLatestSnapshot());

		weir_log_watermark(rel, snapshot, mark);
		UnregisterSnapshot(snapshot);
		if (s != NULL)
		{
			/* what was published meanwhile is in there already */
			LWLockAcquire(&weir_shared->order_lock, LW_EXCLUSIVE);
			if (s->in_use && s->stream == relid)
			{
				if (mark->watermark >= s->mark.watermark)
					s->mark = *mark;
				s->watermark_valid = true;
				*mark = s->mark;
			}
			LWLockRelease(&weir_shared->order_lock);
		}
	}
}

static TimestampTz
stream_watermark(Relation rel)
{
	WeirWatermark mark;

	stream_mark(rel, &mark);
	return mark.watermark;
}

/* W of a view: of its state, else of its last checkpoint. */
static TimestampTz
view_watermark(Oid view, const WeirPositionRow *row)
{
	WeirViewShared *v = NULL;
	TimestampTz watermark = row != NULL ? row->watermark : WEIR_NO_TIME;

	if (weir_shared != NULL)
		v = weir_shmem_view(view);
	if (v != NULL)
	{
		LWLockAcquire(&v->publish_lock, LW_SHARED);
		if (v->in_use && v->view == view && v->state_valid)
			watermark = v->watermark;
		LWLockRelease(&v->publish_lock);
	}
	return watermark;
}

/*
 * weir.watermark(rel regclass)
 */
Datum
weir_stats_watermark(PG_FUNCTION_ARGS)
{
	Oid relid = PG_GETARG_OID(0);
	Relation rel = open_named(relid, AccessShareLock);
	AclResult acl;
	TimestampTz watermark;

	acl = pg_class_aclcheck(relid, GetUserId(), ACL_SELECT);
	if (acl != ACLCHECK_OK)
		aclcheck_error(acl, get_relkind_objtype(rel->rd_rel->relkind),
					   RelationGetRelationName(rel));
	if (weir_catalog_is_stream(rel))
		watermark = stream_watermark(rel);
	else if (weir_catalog_is_continuous(rel))
	{
		WeirPositionRow row;
		bool has_row = position_now(relid, -1, &row);

		watermark = view_watermark(relid, has_row ? &row : NULL);
	}
	else
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("\"%s\" is neither a stream nor a continuous view",
						RelationGetRelationName(rel))));
	relation_close(rel, AccessShareLock);
	PG_RETURN_TIMESTAMPTZ(watermark);
}

/*
 * The end of a stream: a record that raises W to infinity, and a row that keeps
 * writers out from its commit on.  Nobody is waited for: a transaction that has
 * inserted before, prepared or not, commits into the log, and late.
 */
static void
end_stream(Relation rel)
{
	Oid relid = RelationGetRelid(rel);
	TimestampTz at;

	if (!object_ownercheck(RelationRelationId, relid, GetUserId()))
		aclcheck_error(ACLCHECK_NOT_OWNER, OBJECT_TABLE,
					   RelationGetRelationName(rel));
	/* two that end it at a time: the second finds it done */
	LockDatabaseObject(RelationRelationId, relid, WEIR_LOCK_END, ExclusiveLock);
	if (weir_catalog_stream_end(relid, &at))
		return;
	weir_catalog_set_stream_end(relid, weir_now());
	weir_stream_heartbeat(rel, DT_NOEND, WEIR_RECORD_HEARTBEAT);
}

/*
 * weir.advance_watermark(stream regclass, watermark timestamptz)
 */
Datum
weir_stats_advance_watermark(PG_FUNCTION_ARGS)
{
	Oid relid = PG_GETARG_OID(0);
	TimestampTz to = PG_GETARG_TIMESTAMPTZ(1);
	const WeirStreamOptions *options;
	AclResult acl;
	Relation rel;
	TimestampTz current;

	weir_shmem_require();
	PreventCommandIfReadOnly("weir.advance_watermark()");
	rel = open_named(relid, RowExclusiveLock);
	if (!weir_catalog_is_stream(rel))
		ereport(ERROR, (errcode(ERRCODE_WRONG_OBJECT_TYPE),
						errmsg("\"%s\" is not a stream",
							   RelationGetRelationName(rel))));
	if (TIMESTAMP_IS_NOEND(to))
	{
		end_stream(rel);
		relation_close(rel, NoLock);
		PG_RETURN_TIMESTAMPTZ(to);
	}
	acl = pg_class_aclcheck(relid, GetUserId(), ACL_INSERT);
	if (acl != ACLCHECK_OK)
		aclcheck_error(acl, OBJECT_TABLE, RelationGetRelationName(rel));
	options = weir_catalog_stream_options(rel);
	if (options->event_attno == 0)
		ereport(ERROR, (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
						errmsg("stream \"%s\" has no event time",
							   RelationGetRelationName(rel)),
						errhint("Set its option event_time.")));
	if (options->max_future != PG_INT64_MAX && options->event_is_timestamptz &&
		to > add_timeout(weir_now(), options->max_future))
		ereport(ERROR, (errcode(ERRCODE_DATETIME_VALUE_OUT_OF_RANGE),
						errmsg("watermark %s is too far in the future",
							   timestamptz_to_str(to)),
						errhint("Raise the option max_future of stream \"%s\".",
								RelationGetRelationName(rel))));

	current = stream_watermark(rel);
	if (to > current)
	{
		weir_stream_heartbeat(rel, to, WEIR_RECORD_HEARTBEAT);
		current = to;
	}
	relation_close(rel, NoLock); /* as after an INSERT */
	PG_RETURN_TIMESTAMPTZ(current);
}

static void
require_owned_stream(Relation rel)
{
	if (!weir_catalog_is_stream(rel))
		ereport(ERROR, (errcode(ERRCODE_WRONG_OBJECT_TYPE),
						errmsg("\"%s\" is not a stream",
							   RelationGetRelationName(rel))));
	if (!object_ownercheck(RelationRelationId, RelationGetRelid(rel),
						   GetUserId()))
		aclcheck_error(ACLCHECK_NOT_OWNER, OBJECT_TABLE,
					   RelationGetRelationName(rel));
}

/*
 * weir.summarize(stream regclass): what a worker does in slices, at once
 */
Datum
weir_stats_summarize(PG_FUNCTION_ARGS)
{
	Oid relid = PG_GETARG_OID(0);
	Relation rel;
	bool more;
	int n;

	weir_shmem_require();
	PreventCommandIfReadOnly("weir.summarize()");
	/* before the lock: that would end an autovacuum; and after it */
	rel = open_named(relid, AccessShareLock);
	require_owned_stream(rel);
	relation_close(rel, AccessShareLock);
	rel = open_named(relid, ShareUpdateExclusiveLock);
	require_owned_stream(rel);
	n = weir_log_summarize(rel, 0, &more);
	relation_close(rel, NoLock);
	PG_RETURN_INT64(n);
}

/* ---------------------------------------------------------------------- */
/* wishes                                                                  */
/* ---------------------------------------------------------------------- */

static bool wish_changed = false;
static bool callback_registered = false;

static void
wish_xact_callback(XactEvent event, void *arg)
{
	switch (event)
	{
		case XACT_EVENT_COMMIT:
			if (wish_changed)
			{
				weir_debug_point_critical("wish-committed");
				weir_shmem_wake_workers(MyDatabaseId, true);
				weir_shmem_wake_launcher();
			}
			wish_changed = false;
			break;
		case XACT_EVENT_ABORT:
			wish_changed = false;
			break;
		case XACT_EVENT_PRE_PREPARE:
			/* nobody would tell the workers at COMMIT PREPARED */
			if (wish_changed)
				ereport(
					ERROR,
					(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					 errmsg(
						 "cannot PREPARE a transaction that has paused or resumed a continuous view")));
			break;
		default:
			break;
	}
}

static void
put_wish(const WeirWish *wish)
{
	if (!callback_registered)
		RegisterXactCallback(wish_xact_callback, NULL);
	callback_registered = true;
	weir_catalog_wish_put(wish);
	wish_changed = true;
	weir_debug_point("wish-put");
}

static void
require_owned_view(Oid view)
{
	require_view(view);
	if (!object_ownercheck(RelationRelationId, view, GetUserId()))
		aclcheck_error(ACLCHECK_NOT_OWNER, OBJECT_MATVIEW, get_rel_name(view));
}

/* Lock the view against other wishes and fetch its wish, for the owner. */
static void
wish_for_change(Oid view, const char *command, WeirWish *wish)
{
	weir_shmem_require();
	PreventCommandIfReadOnly(command);
	/* before the lock: that would end an autovacuum; and after it */
	require_owned_view(view);
	LockRelationOid(view, ShareUpdateExclusiveLock);
	require_owned_view(view);
	if (!weir_catalog_wish_get(view, wish))
		elog(ERROR, "continuous view %u has no entry in weir.view_wish", view);
	if (wish->wanted == WEIR_WANT_STOP)
		report_not_running(view, true, COND_STOPPED);
}

/*
 * weir.pause(view regclass)
 */
Datum
weir_stats_pause(PG_FUNCTION_ARGS)
{
	WeirWish wish;

	wish_for_change(PG_GETARG_OID(0), "weir.pause()", &wish);
	if (wish.wanted != WEIR_WANT_PAUSE)
	{
		wish.wanted = WEIR_WANT_PAUSE;
		put_wish(&wish);
	}
	PG_RETURN_VOID();
}

/*
 * weir.resume(view regclass): runs a paused view on, and a failed one again
 */
Datum
weir_stats_resume(PG_FUNCTION_ARGS)
{
	Oid view = PG_GETARG_OID(0);
	WeirPositionRow row;
	WeirWish wish;

	/* who marks a view as lost holds the same lock */
	wish_for_change(view, "weir.resume()", &wish);
	if (position_now(view, wish.generation, &row) &&
		row.failed_resumes == WEIR_LOST)
		report_not_running(view, true, COND_LOST);
	wish.wanted = WEIR_WANT_RUN;
	wish.resumes++;
	put_wish(&wish);
	PG_RETURN_VOID();
}

/* ---------------------------------------------------------------------- */
/* weir.checkpoint                                                         */
/* ---------------------------------------------------------------------- */

typedef struct CheckpointWait
{
	WeirViewShared *v;
	Oid view;
	uint32 want;
} CheckpointWait;

static bool
has_work(WeirViewShared *v)
{
	WeirViewStatus status = pg_atomic_read_u32(&v->status);

	return status == WEIR_VIEW_RUNNING || status == WEIR_VIEW_BUILDING ||
		   status == WEIR_VIEW_STARTING;
}

static bool
checkpoint_is_done(void *arg)
{
	CheckpointWait *wait = arg;
	WeirViewShared *v = wait->v;

	ConditionVariablePrepareToSleep(&v->progress_cv);
	/* a view that stops has saved what it has, or has nothing more to save */
	if (!v->in_use || v->view != wait->view || v->db != MyDatabaseId ||
		!has_work(v))
		return true;
	return (int32) (pg_atomic_read_u32(&v->done_checkpoint) - wait->want) >= 0;
}

static int
worker_of_checkpoint(void *arg)
{
	CheckpointWait *wait = arg;

	check_own_lock(wait->view, ShareLock); /* it writes rows */
	return wait->v->worker_pid;
}

/*
 * weir.checkpoint()
 */
Datum
weir_stats_checkpoint(PG_FUNCTION_ARGS)
{
	CheckpointWait *waits;
	int n = 0;

	weir_shmem_require();
	PreventCommandDuringRecovery("weir.checkpoint()");
	waits = palloc(WEIR_MAX_VIEWS * sizeof(CheckpointWait));

	LWLockAcquire(&weir_shared->directory_lock, LW_SHARED);
	for (int i = 0; i < WEIR_MAX_VIEWS; i++)
	{
		WeirViewShared *v = &weir_shared->views[i];

		if (!v->in_use || v->db != MyDatabaseId || !has_work(v))
			continue;
		waits[n].v = v;
		waits[n].view = v->view;
		waits[n].want = pg_atomic_add_fetch_u32(&v->want_checkpoint, 1);
		n++;
	}
	LWLockRelease(&weir_shared->directory_lock);
	weir_shmem_wake_workers(MyDatabaseId, false);
	weir_debug_point("checkpoint-asked");

	for (int i = 0; i < n; i++)
		(void) weir_stats_wait(checkpoint_is_done, &waits[i], PG_INT64_MAX,
							   worker_of_checkpoint);
	ConditionVariableCancelSleep();
	PG_RETURN_VOID();
}

/* ---------------------------------------------------------------------- */
/* rows of the views                                                       */
/* ---------------------------------------------------------------------- */

/* One row under construction, filled from left to right. */
typedef struct RowMaker
{
	ReturnSetInfo *rsinfo;
	int n;
	Datum values[32];
	bool nulls[32];
} RowMaker;

static void
row_begin(RowMaker *row, FunctionCallInfo fcinfo)
{
	row->rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	row->n = 0;
}

static void
row_add(RowMaker *row, Datum value)
{
	row->values[row->n] = value;
	row->nulls[row->n++] = false;
}

static void
row_null(RowMaker *row)
{
	row->values[row->n] = (Datum) 0;
	row->nulls[row->n++] = true;
}

static void
row_add_if(RowMaker *row, bool present, Datum value)
{
	if (present)
		row_add(row, value);
	else
		row_null(row);
}

static void
row_end(RowMaker *row)
{
	Assert(row->n == row->rsinfo->setDesc->natts);
	tuplestore_putvalues(row->rsinfo->setResult, row->rsinfo->setDesc,
						 row->values, row->nulls);
}

static Datum
interval_of(int64 us)
{
	Interval *iv = palloc0(sizeof(Interval));

	iv->time = Max(us, 0);
	return PointerGetDatum(iv);
}

static Datum
ms_of(uint64 us)
{
	return Float8GetDatum((double) us / 1000.0);
}

/* OIDs of the streams of this database. */
static List *
all_streams(void)
{
	Oid am = weir_catalog_stream_am();
	List *result = NIL;
	Relation rel;
	TableScanDesc scan;
	HeapTuple tuple;

	if (!OidIsValid(am))
		return NIL;
	rel = table_open(RelationRelationId, AccessShareLock);
	scan = table_beginscan_catalog(rel, 0, NULL);
	while ((tuple = heap_getnext(scan, ForwardScanDirection)) != NULL)
	{
		Form_pg_class form = (Form_pg_class) GETSTRUCT(tuple);

		if (form->relam == am && form->relkind == RELKIND_RELATION)
			result = lappend_oid(result, form->oid);
	}
	table_endscan(scan);
	table_close(rel, AccessShareLock);
	return result;
}

/* Blocks of a large log to look at, at each end. */
#define EDGE_BLOCKS 1024

static void
event_range(Relation rel, Snapshot snapshot, BlockNumber start,
			BlockNumber nblocks, TimestampTz *oldest, TimestampTz *newest)
{
	WeirLogScan *scan = weir_log_scan_begin(rel, snapshot, start, nblocks);
	WeirLogHeader h;

	while (weir_log_scan_next_header(scan, &h))
	{
		CHECK_FOR_INTERRUPTS();
		if (!(h.chunk.flags & WEIR_CHUNK_HAS_TIME))
			continue;
		*oldest = Min(*oldest, h.min_time);
		*newest = Max(*newest, h.max_time);
	}
	weir_log_scan_end(scan);
}

/*
 * A writer of a stream that has not ended: who holds INSERT's lock on it.
 */
typedef struct OpenWriter
{
	Oid stream;
	int pid; /* 0: a prepared transaction */
} OpenWriter;

static List *
open_writers(List *streams)
{
	LockData *locks = GetLockStatusData();
	List *result = NIL;

	for (int i = 0; i < locks->nelements; i++)
	{
		LockInstanceData *lock = &locks->locks[i];
		OpenWriter *writer;

		if (lock->locktag.locktag_type != LOCKTAG_RELATION ||
			lock->locktag.locktag_field1 != MyDatabaseId ||
			(lock->holdMask & LOCKBIT_ON(RowExclusiveLock)) == 0 ||
			!list_member_oid(streams, lock->locktag.locktag_field2) ||
			is_worker(lock->pid))
			continue;
		writer = palloc(sizeof(OpenWriter));
		writer->stream = lock->locktag.locktag_field2;
		writer->pid = lock->pid;
		result = lappend(result, writer);
	}
	return result;
}

/* When the oldest prepared transaction with a lock on the stream was prepared. */
static TimestampTz
oldest_prepared(Oid stream)
{
	Oid argtypes[1] = {OIDOID};
	Datum args[1] = {ObjectIdGetDatum(stream)};
	TimestampTz result = DT_NOEND;
	bool isnull;

	SPI_connect();
	/* its locks bear the virtual number of the session that prepared it */
	if (SPI_execute_with_args(
			"WITH l AS (SELECT * FROM pg_catalog.pg_lock_status()"
			" WHERE pid IS NULL)"
			" SELECT pg_catalog.min(p.prepared)"
			" FROM pg_catalog.pg_prepared_xact() p, l x, l w"
			" WHERE x.transactionid OPERATOR(pg_catalog.=) p.transaction"
			" AND w.virtualtransaction OPERATOR(pg_catalog.=)"
			" x.virtualtransaction"
			" AND w.relation OPERATOR(pg_catalog.=) $1",
			1, argtypes, args, NULL, true, 1) != SPI_OK_SELECT)
		elog(ERROR, "could not read prepared transactions");
	if (SPI_processed == 1)
	{
		Datum value = SPI_getbinval(SPI_tuptable->vals[0],
									SPI_tuptable->tupdesc, 1, &isnull);

		if (!isnull)
			result = DatumGetTimestampTz(value);
	}
	SPI_finish();
	return result;
}

/* Start of the oldest open transaction that wrote to the stream; or DT_NOEND. */
static TimestampTz
oldest_writer(Oid stream, List *writers)
{
	TimestampTz result = DT_NOEND;
	bool prepared = false;
	ListCell *lc;

	foreach(lc, writers)
	{
		OpenWriter *writer = lfirst(lc);
		int n = pgstat_fetch_stat_numbackends();

		if (writer->stream != stream)
			continue;
		if (writer->pid == 0)
		{
			prepared = true;
			continue;
		}
		for (int i = 1; i <= n; i++)
		{
			PgBackendStatus *entry = weir_backend_status(i);

			if (entry != NULL && entry->st_procpid == writer->pid &&
				entry->st_xact_start_timestamp != 0)
				result = Min(result, entry->st_xact_start_timestamp);
		}
	}
	if (prepared)
		result = Min(result, oldest_prepared(stream));
	return result;
}

/* The view whose last checkpoint is furthest behind; InvalidOid: none. */
static Oid
log_holder(Oid stream)
{
	Oid holder = InvalidOid;
	WeirPosition lowest = 0;
	ListCell *lc;

	foreach(lc, weir_catalog_views_of_stream(stream))
	{
		WeirPosition position;

		if (!weir_catalog_needs_log(lfirst_oid(lc), &position))
			continue;
		if (!OidIsValid(holder) || position < lowest)
		{
			holder = lfirst_oid(lc);
			lowest = position;
		}
	}
	return holder;
}

/*
 * Behind weir.streams.  oldest_event and newest_event are exact for logs of up
 * to 2 * EDGE_BLOCKS blocks; of larger ones both ends are looked at.  Never
 * waits for a lock.
 */
Datum
weir_stats_streams(PG_FUNCTION_ARGS)
{
	List *streams_here;
	List *streams = NIL; /* that the caller sees */
	List *writers;
	Snapshot snapshot;
	TimestampTz now = weir_now();
	ListCell *lc;

	weir_shmem_require();
	InitMaterializedSRF(fcinfo, 0);
	streams_here = all_streams();
	weir_debug_point("streams-listed");
	foreach(lc, streams_here)
	{
		if (may_select(lfirst_oid(lc)))
			streams = lappend_oid(streams, lfirst_oid(lc));
	}
	writers = open_writers(streams);
	snapshot = RegisterSnapshot(GetLatestSnapshot());

	foreach(lc, streams)
	{
		Oid stream = lfirst_oid(lc);
		Relation rel = NULL;
		WeirStreamShared *s;
		BlockNumber nblocks = 0;
		TimestampTz oldest = DT_NOEND;
		TimestampTz newest = DT_NOBEGIN;
		TimestampTz writer;
		Oid holder;
		bool locked;
		bool hidden;
		RowMaker row;

		/* of one that is locked (TRUNCATE), show what needs no look at it */
		locked = !ConditionalLockRelationOid(stream, AccessShareLock);
		if (!locked && (rel = try_relation_open(stream, NoLock)) == NULL)
			continue; /* dropped meanwhile */
		s = weir_shmem_stream(stream, false);
		if (rel != NULL)
			nblocks = RelationGetNumberOfBlocks(rel);
		/* nothing is told of rows that policies may hide from the caller */
		hidden = check_enable_rls(stream, InvalidOid, true) == RLS_ENABLED;
		if (nblocks > 0 && nblocks <= 2 * EDGE_BLOCKS && !hidden)
			event_range(rel, snapshot, 0, nblocks, &oldest, &newest);
		else if (nblocks > 2 * EDGE_BLOCKS && !hidden)
		{
			event_range(rel, snapshot, 0, EDGE_BLOCKS, &oldest, &newest);
			event_range(rel, snapshot, nblocks - EDGE_BLOCKS, EDGE_BLOCKS,
						&oldest, &newest);
		}
		writer = oldest_writer(stream, writers);
		holder = log_holder(stream);

		row_begin(&row, fcinfo);
		row_add(&row, ObjectIdGetDatum(stream));
		row_add(&row, Int64GetDatum(s ? pg_atomic_read_u64(&s->rows_in) : 0));
		row_add(&row, Int64GetDatum(s ? pg_atomic_read_u64(&s->bytes_in) : 0));
		row_add_if(&row, oldest <= newest, TimestampTzGetDatum(oldest));
		row_add_if(&row, oldest <= newest, TimestampTzGetDatum(newest));
		row_add_if(&row, !locked, Int64GetDatum((int64) nblocks * BLCKSZ));
		row_add_if(&row, !locked,
				   locked ? (Datum) 0
						  : TimestampTzGetDatum(stream_watermark(rel)));
		row_add(&row,
				Int64GetDatum(s ? pg_atomic_read_u64(&s->refused_future) : 0));
		row_add_if(&row, writer != DT_NOEND,
				   writer != DT_NOEND ? interval_of(now - writer) : (Datum) 0);
		row_add_if(&row, OidIsValid(holder), ObjectIdGetDatum(holder));
		/* no writer waits until weir.max_lag exists */
		row_add(&row, Int32GetDatum(0));
		row_end(&row);
		if (rel != NULL)
			relation_close(rel, AccessShareLock);
	}
	UnregisterSnapshot(snapshot);
	return (Datum) 0;
}

/*
 * What a view has still to consume, from the ring.
 */
typedef struct Lag
{
	bool known; /* the ring holds all of it */
	uint64 rows;
	uint64 bytes;
	TimestampTz since; /* arrival of the oldest; DT_NOEND: none */
} Lag;

#define RING_STEP Min(WEIR_RING_SIZE / 8, 128)

static void
measure_lag(Oid stream, WeirPosition position, Lag *lag)
{
	WeirStreamShared *s = weir_shmem_stream(stream, false);
	uint64 at;
	uint64 head;

	lag->known = true;
	lag->rows = 0;
	lag->bytes = 0;
	lag->since = DT_NOEND;

	LWLockAcquire(&weir_shared->order_lock, LW_SHARED);
	head = weir_shared->ring_head;
	if (weir_shared->boot_number == WEIR_NO_NUMBER ||
		position < weir_shared->boot_number)
	{
		/* of what was written before this start only the log itself knows */
		lag->known = false;
	}
	if (s != NULL && s->last_published <= position && lag->known)
		head = 0;
	LWLockRelease(&weir_shared->order_lock);

	/*
	 * Newest first, some entries at a time: committers want this lock.  Many
	 * numbers below the position in a row mean the rest is older.
	 */
	for (at = head; at > 0;)
	{
		int older = 0;

		CHECK_FOR_INTERRUPTS();
		LWLockAcquire(&weir_shared->order_lock, LW_SHARED);
		for (int i = 0; i < RING_STEP && at > 0; i++)
		{
			const WeirRingEntry *e;

			if (weir_shared->ring_head - (at - 1) > WEIR_RING_SIZE)
			{
				lag->known = false; /* overwritten */
				at = 0;
				break;
			}
			at--;
			e = &weir_shared->ring[at % WEIR_RING_SIZE];
			if (e->txn.number <= position)
			{
				older++;
				continue;
			}
			if (e->db != MyDatabaseId || e->stream != stream)
				continue;
			lag->rows += e->txn.nrows;
			lag->bytes += e->txn.nbytes;
			lag->since = Min(lag->since, e->txn.arrival);
		}
		LWLockRelease(&weir_shared->order_lock);
		if (older == RING_STEP)
			break;
	}
}

/* A percentile of the histogram, interpolated inside its bucket; us. */
static double
percentile(WeirViewShared *v, double fraction)
{
	uint32 counts[lengthof(v->visible_hist)];
	double total = 0;
	double below = 0;

	for (int i = 0; i < lengthof(counts); i++)
	{
		counts[i] = pg_atomic_read_u32(&v->visible_hist[i]);
		total += counts[i];
	}
	if (total == 0)
		return -1;
	for (int i = 0; i < lengthof(counts); i++)
	{
		if (counts[i] > 0 && below + counts[i] >= fraction * total)
		{
			double low = i == 0 ? 0 : (double) (UINT64CONST(1) << i);
			double high = (double) (UINT64CONST(1) << (i + 1));

			return low + (high - low) * (fraction * total - below) / counts[i];
		}
		below += counts[i];
	}
	return (double) (UINT64CONST(1) << lengthof(counts));
}

static void
add_view_row(FunctionCallInfo fcinfo, const WeirWish *wish)
{
	Oid owner = owner_of(wish->view);
	WeirViewShared *v = weir_shmem_view(wish->view);
	WeirViewShared *building;
	WeirPositionRow pos;
	WeirPositionRow wanted;
	bool has_pos = position_now(wish->view, -1, &pos);
	bool has_wanted = position_now(wish->view, wish->generation, &wanted);
	ViewCondition condition;
	WeirPosition position;
	char error[lengthof(v->error)] = "";
	Lag lag;
	RowMaker row;
	double p50;
	double p99;

	if (!OidIsValid(owner))
		return; /* dropped meanwhile */
	condition = view_condition(wish, v,
							   has_wanted ? &wanted
							   : has_pos  ? &pos
										  : NULL);
	/* what a worker has yet to let go of is not the view's any more */
	if (condition == COND_STOPPED)
		v = NULL;
	/* a rebuild under way, or the only generation while it builds */
	building = weir_shmem_view_generation(wish->view, wish->generation);

	if (condition == COND_BUILDING && (v == NULL || v->worker_pid == 0) &&
		weir_shmem_starved())
		strlcpy(error,
				"No background worker is free to maintain it; increase "
				"max_worker_processes.",
				sizeof(error));

	/* checkpointed values stand in for an entry that is not there yet */
	if (v != NULL)
	{
		position = pg_atomic_read_u64(&v->position);
		LWLockAcquire(&v->publish_lock, LW_SHARED);
		if (v->error[0] != '\0')
			strlcpy(error, v->error, sizeof(error));
		LWLockRelease(&v->publish_lock);
	}
	else
		position = has_pos ? pos.position : 0;
	if (error[0] == '\0' && building != NULL && building != v)
	{
		LWLockAcquire(&building->publish_lock, LW_SHARED);
		strlcpy(error, building->error, sizeof(error));
		LWLockRelease(&building->publish_lock);
	}
	if (condition == COND_LOST ||
		(error[0] == '\0' && condition == COND_FAILED))
	{
		const char *stored = NULL;

		if (has_wanted && wanted.error != NULL)
			stored = wanted.error;
		else if (has_pos && pos.error != NULL)
			stored = pos.error;
		if (stored != NULL)
			strlcpy(error, stored,
					pg_mbcliplen(stored, strlen(stored), sizeof(error) - 1) +
						1);
	}
	if (v == NULL && !has_pos)
	{
		/* nothing consumed yet: all of the stream is to come */
		memset(&lag, 0, sizeof(lag));
		lag.since = DT_NOEND;
	}
	else
		measure_lag(wish->stream, position, &lag);

	row_begin(&row, fcinfo);
	row_add(&row, ObjectIdGetDatum(wish->view));
	row_add(&row, ObjectIdGetDatum(owner));
	row_add(&row, CStringGetTextDatum(condition_names[condition]));
	row_add_if(&row, error[0] != '\0' && has_privs_of_role(GetUserId(), owner),
			   CStringGetTextDatum(error));
	row_add_if(&row, v != NULL && v->worker_pid != 0,
			   Int32GetDatum(v != NULL ? v->worker_pid : 0));

	/* an entry whose state was never opened counts nothing */
#define COUNTER(name, stored)                                                  \
	row_add(&row,                                                              \
			Int64GetDatum(Max(v != NULL ? (int64) pg_atomic_read_u64(&v->name) \
										: INT64CONST(0),                       \
							  has_pos ? (stored) : INT64CONST(0))))
	COUNTER(events_in, pos.events_in);
	COUNTER(late, pos.late);
	COUNTER(late_partial, pos.late_partial);
	/* those that a checkpoint has moved to the heap count there */
	row_add_if(&row, v != NULL,
			   Int64GetDatum(v ? pg_atomic_read_u64(&v->shown_groups) : 0));
	row_add_if(&row, v != NULL,
			   Int64GetDatum(v ? pg_atomic_read_u64(&v->state_bytes) : 0));
	row_add(&row, Int64GetDatum(0)); /* nothing spills yet */
	COUNTER(final_rows, pos.final_rows);
#undef COUNTER
	row_add(&row, TimestampTzGetDatum(
					  view_watermark(wish->view, has_pos ? &pos : NULL)));

	row_add_if(&row, lag.known, Int64GetDatum(lag.rows));
	row_add_if(&row, lag.known, Int64GetDatum(lag.bytes));
	if (lag.since != DT_NOEND)
		row_add(&row, interval_of(weir_now() - lag.since));
	else
		row_add_if(&row, lag.known, interval_of(0));
	row_add_if(&row, v != NULL,
			   ms_of(v ? pg_atomic_read_u64(&v->batch_us) : 0));

	if (v != NULL && v->checkpoint_at > 0)
	{
		row_add(&row, TimestampTzGetDatum(v->checkpoint_at));
		row_add(&row, ms_of(pg_atomic_read_u64(&v->checkpoint_us)));
		row_add(&row, Int64GetDatum(pg_atomic_read_u64(&v->checkpoint_bytes)));
	}
	else
	{
		bool stored = has_pos && !TIMESTAMP_NOT_FINITE(pos.checkpoint_at);

		row_add_if(&row, stored, TimestampTzGetDatum(pos.checkpoint_at));
		row_add_if(&row, stored, ms_of(has_pos ? pos.checkpoint_us : 0));
		row_add_if(&row, stored, Int64GetDatum(pos.checkpoint_bytes));
	}

	p50 = v != NULL ? percentile(v, 0.50) : -1;
	p99 = v != NULL ? percentile(v, 0.99) : -1;
	row_add_if(&row, p50 >= 0, Float8GetDatum(p50 / 1000.0));
	row_add_if(&row, p99 >= 0, Float8GetDatum(p99 / 1000.0));
	if (building == NULL || condition != COND_BUILDING)
	{
		row_null(&row);
		row_null(&row);
	}
	else
	{
		row_add(&row, Int64GetDatum(pg_atomic_read_u64(&building->build_done)));
		row_add(&row,
				Int64GetDatum(pg_atomic_read_u64(&building->build_total)));
	}
	row_end(&row);
}

/*
 * Behind weir.views.
 */
Datum
weir_stats_views(PG_FUNCTION_ARGS)
{
	ListCell *lc;

	weir_shmem_require();
	InitMaterializedSRF(fcinfo, 0);
	foreach(lc, weir_catalog_wish_all())
	{
		WeirWish *wish = lfirst(lc);

		CHECK_FOR_INTERRUPTS();
		if (may_select(wish->view))
			add_view_row(fcinfo, wish);
	}
	return (Datum) 0;
}

/*
 * Behind weir.workers: those of this database.
 */
Datum
weir_stats_workers(PG_FUNCTION_ARGS)
{
	WeirWorkerShared workers[WEIR_MAX_WORKERS];
	Oid views[WEIR_MAX_VIEWS];
	int pids[WEIR_MAX_VIEWS];
	int nworkers = 0;
	int nviews = 0;

	weir_shmem_require();
	InitMaterializedSRF(fcinfo, 0);

	LWLockAcquire(&weir_shared->directory_lock, LW_SHARED);
	for (int i = 0; i < WEIR_MAX_WORKERS; i++)
	{
		if (weir_shared->workers[i].in_use &&
			weir_shared->workers[i].db == MyDatabaseId)
			workers[nworkers++] = weir_shared->workers[i];
	}
	for (int i = 0; i < WEIR_MAX_VIEWS; i++)
	{
		WeirViewShared *v = &weir_shared->views[i];

		if (!v->in_use || v->db != MyDatabaseId || v->worker_pid == 0)
			continue;
		views[nviews] = v->view;
		pids[nviews++] = v->worker_pid;
	}
	LWLockRelease(&weir_shared->directory_lock);

	for (int i = 0; i < nworkers; i++)
	{
		WeirWorkerShared *w = &workers[i];
		Datum elements[WEIR_MAX_VIEWS];
		int n = 0;
		RowMaker row;

		for (int j = 0; j < nviews; j++)
		{
			bool twice = false;

			/* a view and its rebuild are two entries */
			for (int k = 0; k < n; k++)
				twice = twice || DatumGetObjectId(elements[k]) == views[j];
			if (pids[j] == w->pid && !twice && may_select(views[j]))
				elements[n++] = ObjectIdGetDatum(views[j]);
		}
		row_begin(&row, fcinfo);
		row_add(&row, Int32GetDatum(w->pid));
		row_add(&row, ms_of(pg_atomic_read_u64(&w->busy_us)));
		row_add(&row, ms_of(pg_atomic_read_u64(&w->idle_us)));
		row_add(&row, Int64GetDatum(pg_atomic_read_u64(&w->batches)));
		row_add(&row, PointerGetDatum(construct_array(elements, n, REGCLASSOID,
													  sizeof(Oid), true,
													  TYPALIGN_INT)));
		row_end(&row);
	}
	return (Datum) 0;
}

/*
 * Filter of weir.errors: 0 the caller sees nothing of this view's errors, 1
 * that there were some, 2 their events and texts too.
 */
Datum
weir_stats_errors_visible(PG_FUNCTION_ARGS)
{
	Oid view = PG_GETARG_OID(0);
	Oid owner = owner_of(view);

	if (!OidIsValid(owner))
		PG_RETURN_INT32(0);
	if (has_privs_of_role(GetUserId(), owner))
		PG_RETURN_INT32(2);
	PG_RETURN_INT32(may_select(view) ? 1 : 0);
}

/* ---------------------------------------------------------------------- */
/* weir.explain                                                            */
/* ---------------------------------------------------------------------- */

typedef struct Lines
{
	ReturnSetInfo *rsinfo;
} Lines;

static void
put_line(Lines *lines, const char *text)
{
	Datum value = CStringGetTextDatum(text);
	bool isnull = false;

	tuplestore_putvalues(lines->rsinfo->setResult, lines->rsinfo->setDesc,
						 &value, &isnull);
}

static char *
time_text(TimestampTz t)
{
	return DatumGetCString(
		DirectFunctionCall1(timestamptz_out, TimestampTzGetDatum(t)));
}

static char *
interval_text(const Interval *iv)
{
	return DatumGetCString(
		DirectFunctionCall1(interval_out, IntervalPGetDatum(iv)));
}

static char *
duration_text(int64 us)
{
	Interval iv = {.time = us};

	return us == PG_INT64_MAX ? pstrdup("infinity") : interval_text(&iv);
}

static void
explain_window(Lines *lines, const WeirViewPlan *plan,
			   const WeirViewOptions *options)
{
	switch (plan->window.kind)
	{
		case WEIR_WINDOW_NONE:
			put_line(lines, "Window: none, groups are kept for ever");
			return;
		case WEIR_WINDOW_BIN:
			put_line(lines, psprintf("Window: bins of %s, allowed lateness %s",
									 duration_text(plan->window.size),
									 duration_text(options->allowed_lateness)));
			return;
		case WEIR_WINDOW_TRUNC:
			put_line(
				lines,
				psprintf("Window: calendar units of %s, allowed lateness %s",
						 interval_text(&plan->window.unit),
						 duration_text(options->allowed_lateness)));
			return;
		case WEIR_WINDOW_HOP:
			put_line(lines,
					 psprintf("Window: %s every %s, kept in slices of %s, "
							  "allowed lateness %s",
							  duration_text(plan->window.size),
							  duration_text(plan->window.slide),
							  duration_text(plan->window.slide),
							  duration_text(options->allowed_lateness)));
			return;
		case WEIR_WINDOW_CUMULATE:
			put_line(lines,
					 psprintf("Window: %s growing by %s, kept in slices of %s, "
							  "allowed lateness %s",
							  duration_text(plan->window.size),
							  duration_text(plan->window.slide),
							  duration_text(plan->window.slide),
							  duration_text(options->allowed_lateness)));
			return;
		case WEIR_WINDOW_SESSION:
			put_line(lines,
					 psprintf("Window: sessions with gaps of up to %s, allowed "
							  "lateness %s",
							  duration_text(plan->window.size),
							  duration_text(options->allowed_lateness)));
			return;
		case WEIR_WINDOW_COUNT:
			put_line(lines, psprintf("Window: " INT64_FORMAT
									 " rows of a key, every " INT64_FORMAT,
									 plan->window.size, plan->window.slide));
			return;
	}
}

static void
explain_keys(Lines *lines, const WeirViewPlan *plan)
{
	for (int i = 0; i < plan->nkeys; i++)
	{
		const WeirKey *key = &plan->keys[i];
		TargetEntry *tle =
			list_nth_node(TargetEntry, plan->input->targetList, i);
		const char *name = tle->resname ? tle->resname : "?";

		for (int c = 0;
			 OidIsValid(plan->view) && c < list_length(plan->targetlist); c++)
		{
			if (plan->column_key[c] == i)
			{
				name = get_attname(plan->view, c + 1, false);
				break;
			}
		}
		put_line(lines,
				 psprintf("Key: %s %s, %s", quote_identifier(name),
						  format_type_with_typemod(key->type, key->typmod),
						  key->is_window ? "fixed by the window"
						  : !OidIsValid(key->hash_proc)
							  ? "not hashable, compared by its operator"
						  : key->by_image ? "equality of bytes"
										  : "equality of its type"));
	}
}

static void
explain_aggregates(Lines *lines, const WeirViewPlan *plan)
{
	EState *estate = CreateExecutorState();
	WeirAggs *aggs = weir_aggs_create(plan->aggs, estate, plan->merged);
	char *layout = pstrdup(weir_aggs_layout(aggs));
	ListCell *lc;

	foreach(lc, plan->aggs)
	{
		WeirAggSpec *spec = lfirst(lc);

		put_line(lines, psprintf("Aggregate: %s",
								 format_procedure(spec->aggref->aggfnoid)));
	}
	put_line(lines, psprintf("Representation: %s", layout));
	weir_aggs_free(aggs);
	FreeExecutorState(estate);
}

/* The plan of the input query: what a worker does per batch, in shape. */
static void
explain_plan(Lines *lines, const WeirViewPlan *plan)
{
	ExplainState *es = NewExplainState();
	bool in_worker = weir_stream_in_worker;
	QueryDesc *desc;
	char *line;
	char *end;

	es->costs = false;
	weir_stream_in_worker = true; /* plan as they do */
	PG_TRY();
	{
		desc = CreateQueryDesc(weir_plan_input(plan), "", GetActiveSnapshot(),
							   InvalidSnapshot, None_Receiver, NULL, NULL, 0);
		ExecutorStart(desc, EXEC_FLAG_EXPLAIN_ONLY);
		ExplainPrintPlan(es, desc);
		ExecutorEnd(desc);
		FreeQueryDesc(desc);
	}
	PG_FINALLY();
	{
		/* a function of a view may have called this in a worker */
		weir_stream_in_worker = in_worker;
	}
	PG_END_TRY();

	put_line(lines, "Worker plan:");
	for (line = es->str->data; line != NULL && *line != '\0'; line = end)
	{
		end = strchr(line, '\n');
		if (end != NULL)
			*end++ = '\0';
		put_line(lines, psprintf("  %s", line));
	}
}

static void
explain_state(Lines *lines, Oid view)
{
	WeirViewShared *v = weir_shared ? weir_shmem_view(view) : NULL;
	uint64 groups;
	uint64 bytes;

	if (v == NULL)
	{
		put_line(lines, "State: not in memory");
		return;
	}
	groups = pg_atomic_read_u64(&v->groups);
	bytes = pg_atomic_read_u64(&v->state_bytes);
	put_line(lines,
			 psprintf("State: " UINT64_FORMAT " groups, " UINT64_FORMAT
					  " bytes, " UINT64_FORMAT
					  " bytes a group; all views use %zu of %d kB",
					  groups, bytes, groups ? bytes / groups : 0,
					  weir_state_memory_used() / 1024, weir_state_memory));
}

/* The record that W is from, and what it would take to be raised. */
static char *
holder_text(const WeirStreamOptions *options, const WeirWatermark *mark)
{
	TimestampTz limit = add_timeout(mark->watermark, options->watermark_delay);
	char *delay = duration_text(options->watermark_delay);

	if (TIMESTAMP_IS_NOEND(mark->watermark))
		return pstrdup("the end of the stream");
	switch (mark->kind)
	{
		case WEIR_RECORD_HEARTBEAT:
			return pstrdup("weir.advance_watermark()");
		case WEIR_RECORD_IDLE:
			return pstrdup("the clock, the stream being idle,");
		case WEIR_RECORD_KEPT:
			return pstrdup(
				"a record that retention has removed, at the latest");
		default:
			break;
	}
	if (options->event_is_timestamptz && options->max_future != PG_INT64_MAX &&
		limit == mark->arrival)
		return psprintf("an event ahead of the clock, taken as its arrival, "
						"less watermark_delay, now %s,",
						delay);
	return psprintf("the latest event, less watermark_delay, now %s,", delay);
}

static void
explain_idleness(Lines *lines, const WeirStreamOptions *options)
{
	if (options->idle_timeout == 0)
		put_line(lines, "Moved by: later events, weir.advance_watermark(); the "
						"clock does not move it, idle_timeout is off");
	else
		put_line(lines,
				 psprintf("Moved by: later events, weir.advance_watermark(); "
						  "the clock, when that closes a window, after %s "
						  "without commit",
						  duration_text(options->idle_timeout)));
}

/* Shown to those who see the stream itself, as in weir.streams. */
static void
explain_writers(Lines *lines, Oid stream, const WeirStreamOptions *options)
{
	TimestampTz since =
		oldest_writer(stream, open_writers(list_make1_oid(stream)));

	if (since == DT_NOEND)
		return;
	put_line(lines, psprintf("Not held by: open transactions that write to "
							 "the stream, the oldest since %s%s",
							 time_text(since),
							 options->idle_timeout != 0
								 ? "; but the clock does not move it meanwhile"
								 : ""));
}

/* The view's W is not the stream's. */
static void
explain_behind(Lines *lines, Oid view)
{
	WeirWish wish;
	ViewCondition condition;

	if (condition_now(view, &wish, &condition))
		put_line(lines, psprintf("Behind: the view, %s, has not consumed all "
								 "of the stream",
								 condition_names[condition]));
}

/*
 * What holds W and since when.
 */
static void
explain_watermark(Lines *lines, const WeirViewPlan *plan)
{
	Relation rel = try_relation_open(plan->stream, AccessShareLock);
	const WeirStreamOptions *options;
	WeirWatermark mark;
	WeirPositionRow row;
	TimestampTz of_view;

	if (rel == NULL)
		return;
	options = weir_catalog_stream_options(rel);
	stream_mark(rel, &mark);
	if (mark.watermark == WEIR_NO_TIME)
	{
		put_line(lines, "Watermark: unset, the stream has had no event");
		relation_close(rel, AccessShareLock);
		return;
	}
	of_view = view_watermark(plan->view,
							 position_now(plan->view, -1, &row) ? &row : NULL);
	put_line(lines, psprintf("Watermark: %s (stream), %s (view)",
							 time_text(mark.watermark), time_text(of_view)));
	put_line(lines,
			 psprintf("Held by: %s since %s", holder_text(options, &mark),
					  time_text(mark.arrival)));
	if (!TIMESTAMP_IS_NOEND(mark.watermark))
	{
		explain_idleness(lines, options);
		if (may_select(plan->stream))
			explain_writers(lines, plan->stream, options);
	}
	if (of_view < mark.watermark)
		explain_behind(lines, plan->view);
	relation_close(rel, AccessShareLock);
}

/* The same of windows over now(). */
static void
explain_arrival(Lines *lines, const WeirViewPlan *plan)
{
	WeirPositionRow row;
	TimestampTz watermark = view_watermark(
		plan->view, position_now(plan->view, -1, &row) ? &row : NULL);

	if (watermark == WEIR_NO_TIME)
	{
		put_line(lines, "Watermark: unset, the view has seen nothing arrive");
		return;
	}
	put_line(lines, psprintf("Watermark: %s (view)", time_text(watermark)));
	put_line(lines, TIMESTAMP_IS_NOEND(watermark)
						? "Held by: the end of the stream"
						: "Held by: what arrived last; the clock moves it when "
						  "that closes a window");
}

/*
 * weir.explain(view regclass)
 */
Datum
weir_stats_explain(PG_FUNCTION_ARGS)
{
	Oid view = PG_GETARG_OID(0);
	Relation rel = open_named(view, AccessShareLock);
	AclResult acl;
	WeirViewOptions *options;
	WeirViewPlan *plan;
	WeirSecure secure;
	Lines lines;

	require_view(view);
	acl = pg_class_aclcheck(view, GetUserId(), ACL_SELECT);
	if (acl != ACLCHECK_OK)
		aclcheck_error(acl, OBJECT_MATVIEW, RelationGetRelationName(rel));
	InitMaterializedSRF(fcinfo, MAT_SRF_USE_EXPECTED_DESC);
	lines.rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;

	options = weir_catalog_view_options(view);
	weir_secure_enter(&secure, rel->rd_rel->relowner, options->settings);
	plan = weir_plan_query(weir_plan_view_query(view), view,
						   rel->rd_rel->relowner, false);
	put_line(&lines,
			 psprintf("Stream: %s",
					  quote_qualified_identifier(
						  get_namespace_name(get_rel_namespace(plan->stream)),
						  get_rel_name(plan->stream))));
	put_line(&lines, plan->grouped ? "Shape: groups"
								   : "Shape: one row over all events");
	explain_window(&lines, plan, options);
	if (plan->window.by_arrival)
		put_line(&lines, "Time: the arrival of events, with the clock");
	explain_keys(&lines, plan);
	explain_aggregates(&lines, plan);
	explain_state(&lines, view);
	explain_plan(&lines, plan);
	weir_secure_leave(&secure);

	/* times in the reader's own format */
	if (plan->window.by_arrival)
		explain_arrival(&lines, plan);
	else if (plan->window.kind != WEIR_WINDOW_NONE)
		explain_watermark(&lines, plan);
	relation_close(rel, AccessShareLock);
	return (Datum) 0;
}
