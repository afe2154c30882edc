/*-------------------------------------------------------------------------
 *
 * retention.c
 *	  What a stream's options retention and retention_size let go of, and what
 *	  becomes of views that keep it from going.
 *
 * A stream is trimmed up to what every generation of every view of it has
 * consumed durably.  One that does not move (its view is paused, or has failed)
 * holds the log.  What it holds back is what would go but for those that do not
 * move; if that is more than weir.max_held_log, the generation is lost: it is
 * marked so in its position row (WEIR_LOST), and the log is trimmed without
 * regard to it, in one transaction.
 *
 * Nobody who is lost may ever consume again, as it would leave out what is
 * gone, and nobody who moves may be lost.  For that
 *	- a wish is changed under the view's ShareUpdateExclusiveLock, which is held
 *	  here while it is judged and marked: weir.resume() comes before, and the
 *	  view moves, or after, and finds the mark;
 *	- the mark replaces the version of the position row that was judged.  A
 *	  worker that writes another one first keeps the view from being lost this
 *	  time; one that comes later finds that the row is not its own any more, and
 *	  reads the mark with it;
 *	- REFRESH waits for the lock on the stream's history (log_trim.h).
 *
 * A generation without a position row, which has never been opened, is not
 * lost; it holds everything.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/relation.h"
#include "access/xact.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

#include "catalog.h"
#include "debug.h"
#include "guc.h"
#include "log_summary.h"
#include "log_trim.h"
#include "retention.h"
#include "shmem.h"
#include "stream.h"

#ifdef WEIR_DEBUG
#define FIRST_WARNING (UINT64CONST(2) * 1024 * 1024) /* for tests */
#else
#define FIRST_WARNING (UINT64CONST(1024) * 1024 * 1024)
#endif

/* A generation that does not move. */
typedef struct Holder
{
	Oid view;
	int64 generation;
	WeirPosition position;
	uint64 held; /* bytes that would go but for it and others like it */
} Holder;

/* What this process has warned of; the next warning is due at "next" bytes. */
typedef struct Warned
{
	Oid view;
	uint64 next;
} Warned;

static List *warned = NIL; /* in TopMemoryContext */

/*
 * Does this generation stand still?  A pause counts once the worker, if there is
 * one, has followed it: until then there may be a checkpoint to come.
 */
static bool
stands_still(const WeirWish *wish, const WeirPositionRow *row)
{
	WeirViewShared *v;

	if (row->failed_resumes >= wish->resumes)
		return true;
	if (wish->wanted != WEIR_WANT_PAUSE)
		return false;
	v = weir_shmem_view_generation(row->view, row->generation);
	return v == NULL ||
		   pg_atomic_read_u32(&v->status) >= (uint32) WEIR_VIEW_PAUSED;
}

/*
 * A generation of a view that needs the log: into *holders if it stands still,
 * else *moving is not beyond it.
 */
static void
note_generation(const WeirWish *wish, int64 generation, List **holders,
				WeirPosition *moving)
{
	WeirPositionRow row;
	Holder *h;

	if (!weir_catalog_position_get(wish->view, generation, NULL, &row, NULL))
	{
		*moving = WEIR_NO_NUMBER;
		return;
	}
	if (generation < 0 && row.generation != wish->generation)
		note_generation(wish, wish->generation, holders, moving);
	if (row.failed_resumes == WEIR_LOST)
		return;
	if (!stands_still(wish, &row))
	{
		*moving = Min(*moving, row.position);
		return;
	}
	h = palloc0(sizeof(Holder));
	h->view = row.view;
	h->generation = row.generation;
	h->position = row.position;
	*holders = lappend(*holders, h);
}

/*
 * What all generations of the stream's views that move have consumed durably;
 * those that do not go into *holders.
 */
static WeirPosition
moving_position(Oid stream, List **holders)
{
	WeirPosition result = PG_UINT64_MAX;
	ListCell *lc;

	foreach(lc, weir_catalog_views_of_stream(stream))
	{
		WeirWish wish;

		if (weir_catalog_wish_get(lfirst_oid(lc), &wish) &&
			wish.wanted != WEIR_WANT_STOP)
			note_generation(&wish, -1, holders, &result);
	}
	return result;
}

/* Bytes of the log that would go but for those that do not move. */
static void
measure(Relation rel, const WeirStreamOptions *options, WeirPosition moving,
		List *holders)
{
	int n = list_length(holders);
	WeirPosition *after = palloc(n * sizeof(WeirPosition));
	uint64 *held = palloc(n * sizeof(uint64));
	TimestampTz older_than = options->retention == PG_INT64_MAX
								 ? DT_NOBEGIN
								 : weir_now() - options->retention;

	for (int i = 0; i < n; i++)
		after[i] = ((Holder *) list_nth(holders, i))->position;
	weir_log_held(rel, moving, older_than, (uint64) options->retention_size,
				  after, held, n);
	for (int i = 0; i < n; i++)
		((Holder *) list_nth(holders, i))->held = held[i];
}

/* At FIRST_WARNING, twice that, four times .. */
static void
warn(const Holder *h)
{
	Warned *w = NULL;
	ListCell *lc;
	MemoryContext old;

	foreach(lc, warned)
		if (((Warned *) lfirst(lc))->view == h->view)
			w = lfirst(lc);
	if (h->held < (w ? w->next : FIRST_WARNING))
		return;
	if (w == NULL)
	{
		old = MemoryContextSwitchTo(TopMemoryContext);
		w = palloc(sizeof(Warned));
		w->view = h->view;
		w->next = FIRST_WARNING;
		warned = lappend(warned, w);
		MemoryContextSwitchTo(old);
	}
	while (w->next <= h->held)
		w->next *= 2;
	ereport(WARNING, (errmsg("continuous view \"%s\" holds back " UINT64_FORMAT
							 " MB of the log of its stream",
							 get_rel_name(h->view), h->held / 1024 / 1024),
					  errdetail("It is paused or has failed."),
					  errhint("Resume or drop it, or set weir.max_held_log.")));
}

static char *
loss_text(const WeirPositionRow *row)
{
	const char *text = "Events that it had yet to consume were removed, see "
					   "weir.max_held_log. REFRESH it to rebuild it from those "
					   "that are left, or drop it.";

	if (row->failed_resumes >= 0 && row->error != NULL)
		return psprintf("%s It had failed: %s", text, row->error);
	return pstrdup(text);
}

/*
 * Mark a generation as lost, if it still stands still where it was found.  Its
 * view's lock is kept until the transaction ends.
 */
static bool
give_up(Oid stream, const Holder *h)
{
	WeirWish wish;
	WeirPositionRow row;
	ItemPointerData tid;

	if (!ConditionalLockRelationOid(h->view, ShareUpdateExclusiveLock))
		return false;
	if (!weir_catalog_wish_get(h->view, &wish) ||
		wish.wanted == WEIR_WANT_STOP ||
		!weir_catalog_position_get(h->view, h->generation, NULL, &row, &tid) ||
		row.position != h->position || row.failed_resumes == WEIR_LOST ||
		!stands_still(&wish, &row))
		return false;
	row.error = loss_text(&row);
	row.sqlstate = "55000";
	row.failed_resumes = WEIR_LOST;
	if (!weir_catalog_position_put(&row, &tid))
		return false;
	weir_catalog_error_add(h->view, h->generation, stream, NULL, row.sqlstate,
						   row.error);
	ereport(LOG,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("continuous view \"%s\" is lost", get_rel_name(h->view)),
			 errdetail("It held back " UINT64_FORMAT
					   " kB of the log of stream \"%s\".",
					   h->held / 1024, get_rel_name(stream)),
			 errhint("REFRESH it to rebuild it from the events that are left, "
					 "or drop it.")));
	return true;
}

/*
 * Up to where the stream may be trimmed.  *any_lost: some generation has been
 * given up for that.
 */
static WeirPosition
trim_limit(Relation rel, const WeirStreamOptions *options, bool *any_lost)
{
	Oid stream = RelationGetRelid(rel);
	uint64 limit = (uint64) Max(weir_max_held_log, 0) * 1024 * 1024;
	List *holders = NIL;
	WeirPosition moving = moving_position(stream, &holders);
	WeirPosition result = moving;
	ListCell *lc;

	if (moving == WEIR_NO_NUMBER || holders == NIL)
		return moving;
	measure(rel, options, moving, holders);
	foreach(lc, holders)
	{
		Holder *h = lfirst(lc);

		if (weir_max_held_log >= 0 && h->held > limit && give_up(stream, h))
		{
			*any_lost = true;
			continue;
		}
		warn(h);
		result = Min(result, h->position);
	}
	if (*any_lost)
		weir_debug_point("retention-marked");
	return result;
}

/*
 * Begin a transaction, and open the stream in it.  NULL: the lock is not to be
 * had at once, or it is not a stream.
 */
static Relation
begin_with_stream(Oid stream, LOCKMODE lockmode)
{
	Relation rel;

	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	PushActiveSnapshot(GetTransactionSnapshot());
	rel = ConditionalLockRelationOid(stream, lockmode)
			  ? try_relation_open(stream, NoLock)
			  : NULL;
	if (rel != NULL && !weir_catalog_is_stream(rel))
	{
		relation_close(rel, NoLock);
		rel = NULL;
	}
	return rel;
}

/*
 * If somebody else is at it, or a REFRESH relies on what is there, not now.
 */
bool
weir_retention_trim(Oid stream)
{
	bool is_trimmed = false;
	Relation rel = begin_with_stream(stream, RowExclusiveLock);
	WeirStreamOptions options;
	WeirPosition up_to;
	WeirTrimmed trimmed = {.max_time = WEIR_NO_TIME, .watermark = WEIR_NO_TIME};
	bool any_lost = false;

	if (rel == NULL)
		;
	else if (!weir_log_lock_history(stream, true))
		/* or he has ended just now: a REFRESH would still be there */
		is_trimmed = weir_log_is_being_trimmed(stream) ||
					 weir_log_lock_history(stream, true);
	else
	{
		options = *weir_catalog_stream_options(rel);
		up_to = options.retention == PG_INT64_MAX &&
						options.retention_size == PG_INT64_MAX
					? WEIR_NO_NUMBER
					: trim_limit(rel, &options, &any_lost);
		if (up_to != WEIR_NO_NUMBER && options.retention != PG_INT64_MAX)
			weir_log_trim(rel, up_to, weir_now() - options.retention, 0,
						  &trimmed);
		if (up_to != WEIR_NO_NUMBER && options.retention_size != PG_INT64_MAX)
		{
			CommandCounterIncrement();
			weir_log_trim(rel, up_to, DT_NOEND, options.retention_size,
						  &trimmed);
		}
		if (trimmed.last != WEIR_NO_NUMBER)
			weir_catalog_set_trimmed(stream, trimmed.last, trimmed.max_time,
									 true);
		if (trimmed.watermark != WEIR_NO_TIME)
			weir_stream_heartbeat(rel, trimmed.watermark, WEIR_RECORD_KEPT);
	}
	if (rel != NULL)
		relation_close(rel, NoLock);
	PopActiveSnapshot();
	if (any_lost)
		weir_debug_point("retention-commit");
	CommitTransactionCommand();
	if (any_lost)
		weir_shmem_wake_workers(MyDatabaseId, true);
	return is_trimmed;
}

bool
weir_retention_summarize(Oid stream, int max_ms)
{
	Relation rel = begin_with_stream(stream, ShareUpdateExclusiveLock);
	bool more = false;

	if (rel != NULL)
	{
		(void) weir_log_summarize(rel, max_ms, &more);
		relation_close(rel, NoLock);
	}
	PopActiveSnapshot();
	CommitTransactionCommand();
	return more;
}
