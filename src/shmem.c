/*-------------------------------------------------------------------------
 *
 * shmem.c
 *	  Every byte of shared memory.  The locks, their order and the guard of
 *	  each field are in shmem.h.
 *
 * Layout of the one segment "pg_weir", each part MAXALIGNed:
 *
 *	WeirShared			fixed
 *	WeirCommitSlot[]	one a backend (MaxBackends)
 *	WeirPrepared[]		max_prepared_xacts * WEIR_STREAMS_PER_PREPARED
 *	DSA area			weir.state_memory, in place: it never makes another
 *						segment, so a small /dev/shm does not matter
 *
 * All of it is made by the postmaster before any child exists; nothing of it
 * survives a restart, and nothing durable depends on it.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/twophase.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/shmem.h"
#include "utils/memutils.h"

#include "guc.h"
#include "shmem.h"

/* A prepared transaction seldom writes more streams than this. */
#define WEIR_STREAMS_PER_PREPARED 4

WeirShared *weir_shared = NULL;

static dsa_area *state_area = NULL;
static shmem_request_hook_type prev_request_hook = NULL;
static shmem_startup_hook_type prev_startup_hook = NULL;

static int
prepared_limit(void)
{
	return max_prepared_xacts * WEIR_STREAMS_PER_PREPARED;
}

static Size
slots_offset(void)
{
	return MAXALIGN(sizeof(WeirShared));
}

static Size
prepared_offset(void)
{
	return add_size(slots_offset(),
					MAXALIGN(mul_size(MaxBackends, sizeof(WeirCommitSlot))));
}

static Size
dsa_offset(void)
{
	return add_size(prepared_offset(),
					MAXALIGN(mul_size(prepared_limit(), sizeof(WeirPrepared))));
}

static Size
state_size(void)
{
	return Max(MAXALIGN((Size) weir_state_memory * 1024), dsa_minimum_size());
}

static void
request_shmem(void)
{
	if (prev_request_hook)
		prev_request_hook();
	RequestAddinShmemSpace(add_size(dsa_offset(), state_size()));
}

/* What an entry keeps for good. */
static void
init_view(WeirViewShared *v, int tranche)
{
	LWLockInitialize(&v->publish_lock, tranche);
	for (int p = 0; p < WEIR_PARTITIONS; p++)
		LWLockInitialize(&v->part_lock[p], tranche);
	ConditionVariableInit(&v->progress_cv);
	pg_atomic_init_u32(&v->want_checkpoint, 0);
	pg_atomic_init_u32(&v->done_checkpoint, 0);
}

static void
init_shared(WeirShared *s)
{
	int tranche = LWLockNewTrancheId();
	dsa_area *area;

	MemSet(s, 0, dsa_offset());
	s->tranche = tranche;
	LWLockInitialize(&s->directory_lock, tranche);
	LWLockInitialize(&s->order_lock, tranche);
	s->last_arrival = WEIR_NO_TIME;
	s->max_prepared = prepared_limit();
	for (int i = 0; i < WEIR_MAX_DATABASES; i++)
		pg_atomic_init_u32(&s->databases[i].wishes, 0);
	for (int i = 0; i < WEIR_MAX_WORKERS; i++)
	{
		pg_atomic_init_u64(&s->workers[i].busy_us, 0);
		pg_atomic_init_u64(&s->workers[i].idle_us, 0);
		pg_atomic_init_u64(&s->workers[i].batches, 0);
	}
	for (int i = 0; i < WEIR_MAX_VIEWS; i++)
		init_view(&s->views[i], tranche);

	s->dsa_size = state_size();
	area = dsa_create_in_place((char *) s + dsa_offset(), s->dsa_size, tranche,
							   NULL);
	dsa_pin(area);
	dsa_set_size_limit(area, s->dsa_size);
	/* children attach for themselves, as with the server's own statistics */
	dsa_detach(area);
}

static void
startup_shmem(void)
{
	bool found;

	if (prev_startup_hook)
		prev_startup_hook();

	LWLockAcquire(AddinShmemInitLock, LW_EXCLUSIVE);
	weir_shared = ShmemInitStruct("pg_weir",
								  add_size(dsa_offset(), state_size()), &found);
	if (!found)
		init_shared(weir_shared);
	LWLockRelease(AddinShmemInitLock);
	LWLockRegisterTranche(weir_shared->tranche, "pg_weir");
}

void
weir_shmem_init(void)
{
	prev_request_hook = shmem_request_hook;
	shmem_request_hook = request_shmem;
	prev_startup_hook = shmem_startup_hook;
	shmem_startup_hook = startup_shmem;
}

void
weir_shmem_require(void)
{
	if (weir_shared == NULL)
		ereport(
			ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("pg_weir must be loaded when the server starts"),
			 errhint(
				 "Add pg_weir to shared_preload_libraries and restart the server.")));
}

WeirCommitSlot *
weir_shmem_commit_slots(int *n)
{
	*n = MaxBackends;
	return (WeirCommitSlot *) ((char *) weir_shared + slots_offset());
}

WeirPrepared *
weir_shmem_prepared(int *n)
{
	*n = weir_shared->max_prepared;
	return (WeirPrepared *) ((char *) weir_shared + prepared_offset());
}

dsa_area *
weir_shmem_dsa(void)
{
	if (state_area == NULL)
	{
		MemoryContext old = MemoryContextSwitchTo(TopMemoryContext);

		state_area =
			dsa_attach_in_place((char *) weir_shared + dsa_offset(), NULL);
		dsa_pin_mapping(state_area);
		MemoryContextSwitchTo(old);
	}
	return state_area;
}

/*
 * Linear searches: the arrays are short, and the hot callers keep the pointer
 * they got.
 */
WeirStreamShared *
weir_shmem_stream(Oid stream, bool make)
{
	WeirStreamShared *result = NULL;
	WeirStreamShared *unused = NULL;

	LWLockAcquire(&weir_shared->directory_lock,
				  make ? LW_EXCLUSIVE : LW_SHARED);
	for (int i = 0; i < WEIR_MAX_STREAMS && result == NULL; i++)
	{
		WeirStreamShared *s = &weir_shared->streams[i];

		if (!s->in_use)
		{
			if (unused == NULL)
				unused = s;
		}
		else if (s->stream == stream && s->db == MyDatabaseId)
			result = s;
	}
	if (result == NULL && make && unused != NULL)
	{
		MemSet(unused, 0, sizeof(*unused));
		pg_atomic_init_u64(&unused->rows_in, 0);
		pg_atomic_init_u64(&unused->bytes_in, 0);
		pg_atomic_init_u64(&unused->refused_future, 0);
		pg_atomic_init_u32(&unused->ended, WEIR_END_UNKNOWN);
		pg_atomic_init_u32(&unused->collected, 0);
		unused->db = MyDatabaseId;
		unused->stream = stream;
		unused->last_arrival = WEIR_NO_TIME;
		/* it may be one of those that had no place before; who publishes
		 * holds directory_lock, too */
		unused->last_published = weir_shared->last_unlisted;
		unused->mark.watermark = WEIR_NO_TIME;
		unused->worker = -1;
		unused->in_use = true;
		result = unused;
	}
	LWLockRelease(&weir_shared->directory_lock);
	return result;
}

void
weir_shmem_stream_free(Oid db, Oid stream)
{
	LWLockAcquire(&weir_shared->directory_lock, LW_EXCLUSIVE);
	for (int i = 0; i < WEIR_MAX_STREAMS; i++)
	{
		WeirStreamShared *s = &weir_shared->streams[i];

		if (s->in_use && s->db == db &&
			(s->stream == stream || !OidIsValid(stream)))
			s->in_use = false;
	}
	LWLockRelease(&weir_shared->directory_lock);
}

bool
weir_shmem_stream_watch(Oid stream, int worker)
{
	WeirStreamShared *s = weir_shmem_stream(stream, true);

	if (s == NULL)
		return false;
	LWLockAcquire(&weir_shared->directory_lock, LW_EXCLUSIVE);
	if (s->in_use && s->stream == stream && s->db == MyDatabaseId)
		s->worker = worker;
	LWLockRelease(&weir_shared->directory_lock);
	return true;
}

/* generation < 0: the answering one.  Caller holds directory_lock. */
static WeirViewShared *
find_view(Oid view, int64 generation)
{
	for (int i = 0; i < WEIR_MAX_VIEWS; i++)
	{
		WeirViewShared *v = &weir_shared->views[i];

		if (v->in_use && v->view == view && v->db == MyDatabaseId &&
			(generation < 0 ? v->answering : v->generation == generation))
			return v;
	}
	return NULL;
}

WeirViewShared *
weir_shmem_view(Oid view)
{
	return weir_shmem_view_generation(view, -1);
}

WeirViewShared *
weir_shmem_view_generation(Oid view, int64 generation)
{
	WeirViewShared *v;

	LWLockAcquire(&weir_shared->directory_lock, LW_SHARED);
	v = find_view(view, generation);
	LWLockRelease(&weir_shared->directory_lock);
	return v;
}

/*
 * Everything of an entry that is not a lock or identity, but for the requests
 * for checkpoints: who waits for one may find the entry with the view's next
 * generation, whose worker then does it.
 */
static void
reset_view(WeirViewShared *v)
{
	pg_atomic_init_u64(&v->position, 0);
	pg_atomic_init_u64(&v->reached, 0);
	pg_atomic_init_u64(&v->allowed_lateness, 0);
	v->watermark = WEIR_NO_TIME;
	pg_atomic_init_u32(&v->status, WEIR_VIEW_STARTING);
	v->state_valid = false;
	v->publishing = false;
	v->version = 0;
	v->root = InvalidDsaPointer;
	v->owes_rows = false;
	pg_atomic_init_u32(&v->cuts, 0);
	pg_atomic_init_u64(&v->groups, 0);
	pg_atomic_init_u64(&v->state_bytes, 0);
	pg_atomic_init_u32(&v->owner, InvalidOid);
	pg_atomic_init_u64(&v->role_memory, 0);
	pg_atomic_init_u64(&v->shown_groups, 0);
	pg_atomic_init_u64(&v->events_in, 0);
	pg_atomic_init_u64(&v->late, 0);
	pg_atomic_init_u64(&v->late_partial, 0);
	pg_atomic_init_u64(&v->final_rows, 0);
	pg_atomic_init_u64(&v->batch_us, 0);
	pg_atomic_init_u64(&v->checkpoint_us, 0);
	pg_atomic_init_u64(&v->checkpoint_bytes, 0);
	v->checkpoint_at = WEIR_NO_TIME;
	pg_atomic_init_u64(&v->build_done, 0);
	pg_atomic_init_u64(&v->build_total, 0);
	for (int i = 0; i < lengthof(v->visible_hist); i++)
		pg_atomic_init_u32(&v->visible_hist[i], 0);
	v->worker_pid = 0;
	v->failed_resumes = -1;
	v->error[0] = '\0';
}

WeirViewShared *
weir_shmem_view_make(Oid view, Oid stream, int64 generation, bool answering)
{
	WeirViewShared *v;

	LWLockAcquire(&weir_shared->directory_lock, LW_EXCLUSIVE);
	v = find_view(view, generation);
	for (int i = 0; i < WEIR_MAX_VIEWS && v == NULL; i++)
	{
		if (weir_shared->views[i].in_use)
			continue;
		v = &weir_shared->views[i];
		reset_view(v);
		v->db = MyDatabaseId;
		v->view = view;
		v->stream = stream;
		v->generation = generation;
		v->answering = answering;
		v->in_use = true;
	}
	LWLockRelease(&weir_shared->directory_lock);
	return v;
}

WeirViewShared *
weir_shmem_view_private(Oid view, Oid stream, int64 generation)
{
	WeirViewShared *v = palloc0(sizeof(WeirViewShared));

	init_view(v, weir_shared->tranche);
	reset_view(v);
	v->db = MyDatabaseId;
	v->view = view;
	v->stream = stream;
	v->generation = generation;
	return v;
}

void
weir_shmem_view_free(WeirViewShared *v)
{
	LWLockAcquire(&weir_shared->directory_lock, LW_EXCLUSIVE);
	v->in_use = false;
	v->answering = false;
	v->worker_pid = 0;
	LWLockRelease(&weir_shared->directory_lock);
	ConditionVariableBroadcast(&v->progress_cv);
}

static bool
worker_is_alive(int pid)
{
	for (int i = 0; i < WEIR_MAX_WORKERS; i++)
		if (weir_shared->workers[i].in_use &&
			weir_shared->workers[i].pid == pid)
			return true;
	return false;
}

/* A pid that is not in workers[] is dead: it leaves when its work is over. */
int
weir_shmem_view_claim(WeirViewShared *v, Oid view, int64 generation)
{
	int pid = -1;

	LWLockAcquire(&weir_shared->directory_lock, LW_EXCLUSIVE);
	if (v->in_use && v->db == MyDatabaseId && v->view == view &&
		v->generation == generation)
	{
		pid = v->worker_pid;
		if (pid == MyProcPid || !worker_is_alive(pid))
		{
			v->worker_pid = MyProcPid;
			pid = 0;
		}
	}
	LWLockRelease(&weir_shared->directory_lock);
	return pid;
}

void
weir_shmem_view_let_go(WeirViewShared *v)
{
	uint32 status = WEIR_VIEW_RUNNING;

	if (v->owes_rows)
		(void) pg_atomic_compare_exchange_u32(&v->status, &status,
											  WEIR_VIEW_STARTING);
}

void
weir_shmem_view_unclaim(WeirViewShared *v)
{
	LWLockAcquire(&weir_shared->directory_lock, LW_EXCLUSIVE);
	if (v->worker_pid == MyProcPid)
	{
		weir_shmem_view_let_go(v);
		v->worker_pid = 0;
	}
	LWLockRelease(&weir_shared->directory_lock);
}

WeirDatabaseShared *
weir_shmem_database(Oid db, bool make)
{
	WeirDatabaseShared *result = NULL;
	WeirDatabaseShared *unused = NULL;

	LWLockAcquire(&weir_shared->directory_lock,
				  make ? LW_EXCLUSIVE : LW_SHARED);
	for (int i = 0; i < WEIR_MAX_DATABASES && result == NULL; i++)
	{
		WeirDatabaseShared *d = &weir_shared->databases[i];

		if (d->db == db)
			result = d;
		else if (d->db == InvalidOid && unused == NULL)
			unused = d;
	}
	if (result == NULL && make && unused != NULL)
	{
		unused->db = db;
		unused->bars = 0;
		unused->closed = false;
		unused->wants_look = true;
		unused->looks_wanted++;
		unused->starved = false;
		unused->want_workers = 0;
		MemSet(unused->ended_well, 0, sizeof(unused->ended_well));
		pg_atomic_write_u32(&unused->wishes, 0);
		result = unused;
	}
	LWLockRelease(&weir_shared->directory_lock);
	return result;
}

bool
weir_shmem_starved(void)
{
	bool result = false;

	LWLockAcquire(&weir_shared->directory_lock, LW_SHARED);
	for (int i = 0; i < WEIR_MAX_DATABASES; i++)
		if (weir_shared->databases[i].db == MyDatabaseId)
			result = weir_shared->databases[i].starved;
	LWLockRelease(&weir_shared->directory_lock);
	return result;
}

void
weir_shmem_wake_workers(Oid db, bool wishes)
{
	LWLockAcquire(&weir_shared->directory_lock, LW_SHARED);
	if (wishes)
	{
		for (int i = 0; i < WEIR_MAX_DATABASES; i++)
			if (weir_shared->databases[i].db == db)
				pg_atomic_fetch_add_u32(&weir_shared->databases[i].wishes, 1);
	}
	for (int i = 0; i < WEIR_MAX_WORKERS; i++)
	{
		WeirWorkerShared *w = &weir_shared->workers[i];

		if (w->in_use && w->db == db && w->latch != NULL)
			SetLatch(w->latch);
	}
	LWLockRelease(&weir_shared->directory_lock);
}

void
weir_shmem_wake_launcher(void)
{
	LWLockAcquire(&weir_shared->directory_lock, LW_SHARED);
	if (weir_shared->launcher_latch != NULL)
		SetLatch(weir_shared->launcher_latch);
	LWLockRelease(&weir_shared->directory_lock);
}

void
weir_shmem_view_set_status(WeirViewShared *v, WeirViewStatus status,
						   const char *error)
{
	int len =
		error ? pg_mbcliplen(error, strlen(error), sizeof(v->error) - 1) : 0;

	LWLockAcquire(&v->publish_lock, LW_EXCLUSIVE);
	pg_atomic_write_u32(&v->status, status);
	memcpy(v->error, error ? error : "", len);
	v->error[len] = '\0';
	LWLockRelease(&v->publish_lock);
	ConditionVariableBroadcast(&v->progress_cv);
}
