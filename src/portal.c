/*-------------------------------------------------------------------------
 *
 * portal.c
 *	  What dumps carry of continuous views beside their definitions: final
 *	  rows, groups, watermark, counters.
 *
 * The table weir.view_dump holds nothing.  It is a configuration table of the
 * extension, so pg_dump reads it with COPY, under its snapshot, and a restore
 * fills it with COPY, after the views have been made (pre-data) and before their
 * REFRESH (post-data).  A row is (view, part, data), view being its qualified
 * name, data an array of text (texts.h); of each view, in this order:
 *
 *	view	format, server major, layout of the groups' texts; what is wanted; W,
 *			closed_before, allowed_lateness, events_in, late, late_partial,
 *			final_rows as in weir.view_position; has it counted events that were
 *			trimmed; of its stream: number of events, W, when it ended or NULL;
 *			SQLSTATE and message of its failure or NULL
 *	group	pane, keys, state
 *	late	an event for the late table
 *	final	a row of the view's heap, its columns
 *	end		numbers of rows of the parts group, late, final
 *
 * Times are microseconds as the server counts them.  Values are in their types'
 * text form: nothing depends on OIDs, byte order or, but for SERIAL states
 * (aggregate.h), the server's major version.
 *
 * Reading.  The snapshot shows some checkpoint of the view, and of its stream all
 * transactions that the checkpoint has consumed and some more.  Those are folded
 * here, by number, in a flow of this process alone, with memory of its own
 * (weir_state_private_begin): the result is what the view will show once it has
 * consumed what the snapshot shows, and that is what the dump holds of the
 * stream.  Of transactions that committed about the time of the snapshot it may
 * show one and not another with a smaller number; that is right.  Windows that
 * have become final since the checkpoint stay groups; the first checkpoint after
 * the restore moves them to the heap.
 *
 *	- paused view: its rows are those it will have when it has been resumed.
 *	- view stopped by an error: folding stops where the view did.  The events
 *	  after that cannot be told from the others in a restored stream, so the view
 *	  comes back as lost: it answers, and only REFRESH continues it.
 *	- stopped view (WITH NO DATA): nothing.
 *	- the state cannot be read at all (its owner has lost a right, a function is
 *	  gone): a WARNING; final rows, and the failure that REFRESH will raise.
 *
 *	- view rebuilt or emptied by REFRESH since the snapshot was taken, if it has
 *	  final rows: an error, as the heap of then is gone.
 *
 * Who reads must own the view, or read all data.  Everything of the view is run
 * as its owner in the restricted context.
 *
 * Writing.  Final rows go into the view's heap at once; all other rows wait in
 * weir.view_import, for only REFRESH comes after the owner has got his rights.
 * Rows of a view that is not there, or runs, are left out with a WARNING.
 *
 * REFRESH takes what waits (weir_portal_adopt): the texts become a first
 * checkpoint, from which a worker starts as from any other.  Its position is the
 * number of the REFRESH's own transaction, taken at commit: the stream is locked
 * against writers until then, so all that it holds at the end is counted, and
 * nothing later.  That is only right as long as nobody has written to the stream
 * since the restore: if it holds more events than the dump did, this is refused.
 *
 * What is read may be anybody's: every field is checked, values by their types'
 * input functions.  Only deserialize functions trust their argument; so SERIAL
 * states are taken from superusers alone.  What concerns the stream (W, its end)
 * is done for its owner and for superusers.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/heapam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "catalog/index.h"
#include "catalog/indexing.h"
#include "catalog/namespace.h"
#include "catalog/pg_authid.h"
#include "catalog/pg_class.h"
#include "catalog/pg_collation.h"
#include "catalog/pg_type.h"
#include "executor/executor.h"
#include "miscadmin.h"
#include "replication/logicalworker.h"
#include "storage/lmgr.h"
#include "utils/acl.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/regproc.h"
#include "utils/rel.h"
#include "utils/resowner.h"
#include "utils/snapmgr.h"
#include "utils/tuplestore.h"
#include "utils/varlena.h"

#include "batch.h"
#include "checkpoint.h"
#include "compat.h"
#include "debug.h"
#include "flow.h"
#include "late.h"
#include "log.h"
#include "log_reader.h"
#include "order.h"
#include "plan.h"
#include "portal.h"
#include "secure.h"
#include "state.h"
#include "stream.h"
#include "texts.h"

#define DUMP_FORMAT 1

/* Values in a form that any session reads; the rest is the view's. */
#define DUMP_SETTINGS                                \
	" DateStyle='ISO, MDY' IntervalStyle='postgres'" \
	" extra_float_digits='3' bytea_output='hex'"

#define FILL_ROWS 1000 /* final rows fetched at a time */

/* The error of a view that had failed, and in the copy is lost, begins so. */
#define FAILED_PREFIX "it had failed when it was dumped: "

#define PART_VIEW  "view"
#define PART_GROUP "group"
#define PART_LATE  "late"
#define PART_FINAL "final"
#define PART_END   "end"

enum
{
	Anum_dump_view = 1,
	Anum_dump_part,
	Anum_dump_data,
	Natts_dump = Anum_dump_data
};

enum
{
	Anum_import_view = 1,
	Anum_import_part,
	Anum_import_trusted,
	Anum_import_data,
	Natts_import = Anum_import_data
};

/* The row of part view. */
typedef struct ViewHeader
{
	int64 major;
	char *layout; /* NULL: no groups */
	char wanted;
	WeirPositionRow row; /* some fields of it */
	bool trimmed;
	int64 events; /* in the stream */
	TimestampTz stream_watermark;
	bool ended;
	TimestampTz ended_at;
	char *sqlstate; /* NULL: it has not failed */
	char *error;
} ViewHeader;

static void
header_out(const ViewHeader *h, WeirTexts *to)
{
	weir_texts_add_int(to, DUMP_FORMAT);
	weir_texts_add_int(to, h->major);
	weir_texts_add(to, h->layout);
	weir_texts_add(to, psprintf("%c", h->wanted));
	weir_texts_add_int(to, h->row.watermark);
	weir_texts_add_int(to, h->row.closed_before);
	weir_texts_add_int(to, h->row.allowed_lateness);
	weir_texts_add_int(to, h->row.events_in);
	weir_texts_add_int(to, h->row.late);
	weir_texts_add_int(to, h->row.late_partial);
	weir_texts_add_int(to, h->row.final_rows);
	weir_texts_add_int(to, h->trimmed);
	weir_texts_add_int(to, h->events);
	weir_texts_add_int(to, h->stream_watermark);
	weir_texts_add(to, h->ended ? psprintf(INT64_FORMAT, h->ended_at) : NULL);
	weir_texts_add(to, h->sqlstate);
	weir_texts_add(to, h->error);
}

static void
header_in(ViewHeader *h, WeirTexts *from, const char *view)
{
	int64 format = weir_texts_next_int(from, 0, PG_INT32_MAX);
	char *text;

	if (format != DUMP_FORMAT)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("dumped state of continuous view \"%s\" cannot be read",
						view),
				 errdetail("Its format is %lld, this version of pg_weir reads "
						   "%d.",
						   (long long) format, DUMP_FORMAT),
				 errhint("Install a newer version of pg_weir, or use REFRESH "
						 "MATERIALIZED VIEW ... WITH NO DATA first, to begin "
						 "anew from the events that are left.")));
	memset(h, 0, sizeof(*h));
	h->major = weir_texts_next_int(from, 1, PG_INT16_MAX);
	h->layout = weir_texts_next(from);
	text = weir_texts_next(from);
	if (text == NULL ||
		(text[0] != WEIR_WANT_RUN && text[0] != WEIR_WANT_PAUSE))
		weir_texts_are_bad("neither \"r\" nor \"p\" for what is wanted");
	h->wanted = text[0];
	h->row.watermark = weir_texts_next_int(from, PG_INT64_MIN, PG_INT64_MAX);
	h->row.closed_before =
		weir_texts_next_int(from, PG_INT64_MIN, PG_INT64_MAX);
	h->row.allowed_lateness = weir_texts_next_int(from, 0, PG_INT64_MAX);
	h->row.events_in = weir_texts_next_int(from, 0, PG_INT64_MAX / 2);
	h->row.late = weir_texts_next_int(from, 0, PG_INT64_MAX / 2);
	h->row.late_partial = weir_texts_next_int(from, 0, PG_INT64_MAX / 2);
	h->row.final_rows = weir_texts_next_int(from, 0, PG_INT64_MAX / 2);
	h->trimmed = weir_texts_next_int(from, 0, 1) == 1;
	h->events = weir_texts_next_int(from, 0, PG_INT64_MAX);
	h->stream_watermark = weir_texts_next_int(from, PG_INT64_MIN, PG_INT64_MAX);
	text = weir_texts_next(from);
	h->ended = text != NULL;
	if (text != NULL)
		h->ended_at =
			DatumGetInt64(DirectFunctionCall1(int8in, CStringGetDatum(text)));
	h->sqlstate = weir_texts_next(from);
	h->error = weir_texts_next(from);
	weir_texts_end(from);
	if ((h->sqlstate == NULL) != (h->error == NULL) ||
		(h->sqlstate != NULL && strlen(h->sqlstate) != 5) ||
		(h->layout == NULL && h->error == NULL))
		weir_texts_are_bad("half of a failure");
}

static char *
qualified_name(Oid relid)
{
	return quote_qualified_identifier(
		get_namespace_name(get_rel_namespace(relid)), get_rel_name(relid));
}

static Oid
owner_of(Relation rel)
{
	return rel->rd_rel->relowner;
}

static char *
settings_of(Oid view)
{
	const char *own = weir_catalog_view_options(view)->settings;

	return psprintf("%s%s", own ? own : "", DUMP_SETTINGS);
}

/* Anybody may make a table of this access method; it takes and holds nothing. */
static bool
is_portal(Relation rel)
{
	return RelationGetRelid(rel) == weir_catalog_table("view_dump");
}


/* ---------- reading ---------- */

/* What is known of a stream under the scan's snapshot. */
typedef struct StreamFacts
{
	Oid stream;
	bool readable; /* not so: unlogged, and this is a standby */
	uint64 events;
	TimestampTz watermark;
} StreamFacts;

typedef struct PortalScan
{
	TableScanDescData base;
	MemoryContext cxt; /* of the scan */
	MemoryContext view_cxt;
	ResourceOwner owner; /* of the scan, for the store's files */
	bool started;
	List *wishes; /* of the views, under the snapshot */
	int next;
	List *streams; /* StreamFacts */

	/* the view at hand */
	char *name;				/* NULL: none */
	Tuplestorestate *store; /* rows made and not yet returned */
	TupleTableSlot *stored;
	int64 ngroups;
	int64 nlate;
	int64 nfinal;
	Relation rel; /* its heap; NULL: all rows are read */
	TableScanDesc heap;
	TupleTableSlot *heap_slot;
	WeirTypeIO *io; /* per column */
	char *settings;
	bool ended; /* the last row is made */
} PortalScan;

static const TupleTableSlotOps *
portal_slot_callbacks(Relation rel)
{
	return &TTSOpsVirtual;
}

static TableScanDesc
portal_scan_begin(Relation rel, Snapshot snapshot, int nkeys,
				  struct ScanKeyData *key, ParallelTableScanDesc parallel,
				  uint32 flags)
{
	PortalScan *s = palloc0(sizeof(PortalScan));

	if (parallel != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("table weir.view_dump cannot be read in parallel")));
	RelationIncrementReferenceCount(rel);
	s->base.rs_rd = rel;
	s->base.rs_snapshot = snapshot;
	s->base.rs_nkeys = nkeys;
	s->base.rs_flags = flags;
	s->cxt = AllocSetContextCreate(CurrentMemoryContext, "weir portal",
								   ALLOCSET_DEFAULT_SIZES);
	s->view_cxt = AllocSetContextCreate(s->cxt, "weir portal view",
										ALLOCSET_DEFAULT_SIZES);
	s->owner = CurrentResourceOwner;
	return (TableScanDesc) s;
}

static void
leave_view(PortalScan *s)
{
	if (s->heap != NULL)
	{
		table_endscan(s->heap);
		ExecDropSingleTupleTableSlot(s->heap_slot);
		table_close(s->rel, NoLock);
	}
	if (s->store != NULL)
	{
		ExecDropSingleTupleTableSlot(s->stored);
		tuplestore_end(s->store);
	}
	s->heap = NULL;
	s->rel = NULL;
	s->store = NULL;
	s->name = NULL;
	MemoryContextReset(s->view_cxt);
}

static void
portal_scan_end(TableScanDesc scan)
{
	PortalScan *s = (PortalScan *) scan;

	leave_view(s);
	MemoryContextDelete(s->cxt);
	RelationDecrementReferenceCount(scan->rs_rd);
	if (scan->rs_flags & SO_TEMP_SNAPSHOT)
		UnregisterSnapshot(scan->rs_snapshot);
	pfree(s);
}

static void
portal_scan_rescan(TableScanDesc scan, struct ScanKeyData *key, bool set_params,
				   bool allow_strat, bool allow_sync, bool allow_pagemode)
{
	PortalScan *s = (PortalScan *) scan;

	leave_view(s);
	s->started = false;
	s->streams = NIL;
	s->wishes = NIL;
	MemoryContextReset(s->cxt);
	s->view_cxt = AllocSetContextCreate(s->cxt, "weir portal view",
										ALLOCSET_DEFAULT_SIZES);
}

static void
put(PortalScan *s, const char *part, const WeirTexts *texts)
{
	Datum values[Natts_dump];
	bool nulls[Natts_dump] = {false};

	values[Anum_dump_view - 1] = CStringGetTextDatum(s->name);
	values[Anum_dump_part - 1] = CStringGetTextDatum(part);
	values[Anum_dump_data - 1] = weir_texts_to_array(texts);
	tuplestore_putvalues(s->store, RelationGetDescr(s->base.rs_rd), values,
						 nulls);
}

/* Texts of groups or late events on their way into the store. */
typedef struct Putter
{
	PortalScan *scan;
	const char *part;
	int64 *count;
} Putter;

/* WeirTextsCallback */
static void
put_texts(WeirTexts *texts, void *arg)
{
	Putter *p = arg;

	put(p->scan, p->part, texts);
	(*p->count)++;
}

static const StreamFacts *
facts_of(PortalScan *s, Relation stream)
{
	Oid oid = RelationGetRelid(stream);
	WeirWatermark mark;
	StreamFacts *f;
	MemoryContext old;
	ListCell *lc;

	foreach(lc, s->streams)
	{
		f = lfirst(lc);
		if (f->stream == oid)
			return f;
	}
	old = MemoryContextSwitchTo(s->cxt);
	f = palloc(sizeof(StreamFacts));
	f->stream = oid;
	f->readable = !RecoveryInProgress() ||
				  stream->rd_rel->relpersistence == RELPERSISTENCE_PERMANENT;
	f->events = 0;
	mark.watermark = WEIR_NO_TIME;
	if (f->readable)
	{
		f->events = weir_log_count(stream, s->base.rs_snapshot);
		weir_log_watermark(stream, s->base.rs_snapshot, &mark);
	}
	f->watermark = mark.watermark;
	s->streams = lappend(s->streams, f);
	MemoryContextSwitchTo(old);
	return f;
}

/*
 * Bring a flow to where the snapshot ends, or to the event that the view cannot
 * take: then the header says why.
 */
static void
fold_to_end(PortalScan *s, WeirFlow *flow, Relation stream, WeirBatchMember *m,
			ViewHeader *h)
{
	MemoryContext cxt = AllocSetContextCreate(
		CurrentMemoryContext, "weir portal batch", ALLOCSET_DEFAULT_SIZES);
	MemoryContext old = CurrentMemoryContext;
	WeirLogReader *reader = NULL;

	m->flow = flow;
	while (h->error == NULL)
	{
		WeirBatchResult result;
		bool any;

		CHECK_FOR_INTERRUPTS();
		if (reader == NULL)
			reader = weir_log_reader_create_at(RelationGetRelid(stream),
											   flow->position,
											   s->base.rs_snapshot, old);
		(void) weir_log_reader_poll(reader, stream);
		MemoryContextSwitchTo(cxt);
		any = weir_batch_run(stream, reader, PG_UINT64_MAX, flow->watermark,
							 flow->plan->window.by_arrival, list_make1(m),
							 &result);
		MemoryContextSwitchTo(old);
		if (!any)
			break;
		switch (m->verdict)
		{
			case WEIR_BATCH_OK:
				break;
			case WEIR_BATCH_AGAIN:
				weir_log_reader_free(reader);
				reader = NULL;
				break;
			case WEIR_BATCH_FAILED:
				if (m->error->sqlerrcode != ERRCODE_OUT_OF_MEMORY)
				{
					h->sqlstate =
						pstrdup(unpack_sql_state(m->error->sqlerrcode));
					h->error = pstrdup(m->error->message);
					ereport(WARNING,
							(errcode(m->error->sqlerrcode),
							 errmsg("continuous view %s is dumped as failed",
									s->name),
							 errdetail("%s.", m->error->message),
							 errhint("Remove the cause, call weir.resume(), "
									 "and dump it again.")));
					break;
				}
				/* FALLTHROUGH */
			case WEIR_BATCH_LATER:
			case WEIR_BATCH_FULL:
			case WEIR_BATCH_IN_PARTS:
			case WEIR_BATCH_LOST:
				ReThrowError(m->error);
		}
		MemoryContextReset(cxt);
	}
	if (reader != NULL)
		weir_log_reader_free(reader);
	MemoryContextDelete(cxt);
}

/* The header, once the flow is where it shall be, then groups and late events. */
static void
put_flow(PortalScan *s, WeirFlow *flow, ViewHeader *h)
{
	Putter putter = {.scan = s};
	WeirTexts texts = {0};
	WeirSecure secure;

	h->layout = weir_flow_dump_layout(flow);
	h->row = *weir_flow_row(flow);
	h->row.watermark = flow->watermark;
	h->row.allowed_lateness = flow->lateness;
	h->row.events_in = pg_atomic_read_u64(&flow->v->events_in);
	h->row.late = pg_atomic_read_u64(&flow->v->late);
	h->row.late_partial = pg_atomic_read_u64(&flow->v->late_partial);
	header_out(h, &texts);
	put(s, PART_VIEW, &texts);

	weir_secure_enter(&secure, flow->plan->owner, s->settings);
	putter.part = PART_GROUP;
	putter.count = &s->ngroups;
	weir_flow_out(flow, put_texts, &putter);
	putter.part = PART_LATE;
	putter.count = &s->nlate;
	weir_flow_late_out(flow, put_texts, &putter);
	weir_secure_leave(&secure);
}

/*
 * Everything of the view but final rows, into the store.  What raises in here
 * for the view's sake leaves a header that says so.
 */
static void
make_state(PortalScan *s, const WeirWish *wish, Relation stream)
{
	MemoryContext cxt = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;
	const StreamFacts *facts = facts_of(s, stream);
	volatile bool readable = facts->readable;
	WeirFlow *volatile flow = NULL;
	ErrorData *volatile error = NULL;
	WeirBatchMember member = {0};
	ViewHeader *h = palloc0(sizeof(ViewHeader));
	WeirTexts texts = {0};

	h->major = WEIR_SERVER_MAJOR;
	h->wanted = wish->wanted;
	h->trimmed = wish->since == WEIR_SINCE_LOST ||
				 wish->since < weir_catalog_trimmed(wish->stream, NULL);
	h->events = (int64) facts->events;
	h->stream_watermark = facts->watermark;
	h->ended = TIMESTAMP_IS_NOEND(facts->watermark) &&
			   weir_catalog_stream_end(wish->stream, &h->ended_at);
	if (!weir_catalog_position_get(wish->view, -1, s->base.rs_snapshot, &h->row,
								   NULL))
	{
		h->row.generation = wish->generation;
		h->row.closed_before = PG_INT64_MIN;
		h->row.watermark = WEIR_NO_TIME;
		h->row.failed_resumes = -1;
	}
	else
		weir_catalog_position_check(&h->row);
	if (h->row.failed_resumes == WEIR_LOST)
	{
		/* a restored one: folding would pass over what it has not counted */
		h->sqlstate = h->row.sqlstate ? h->row.sqlstate : "XX000";
		h->error = h->row.error ? h->row.error : "unknown error";
		if (strncmp(h->error, FAILED_PREFIX, strlen(FAILED_PREFIX)) == 0)
			h->error += strlen(FAILED_PREFIX);
	}

	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(cxt);
	PG_TRY();
	{
		if (!readable)
			ereport(ERROR, (errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
							errmsg("its stream is not logged, so a standby has "
								   "nothing of it")));
		weir_state_private_begin();
		weir_stream_in_worker = true; /* plan as they do */
		PushActiveSnapshot(s->base.rs_snapshot);
		flow = weir_flow_open_copy(wish->view, h->row.generation,
								   s->base.rs_snapshot, cxt);
		fold_to_end(s, flow, stream, &member, h);
		put_flow(s, flow, h);
		PopActiveSnapshot();
		weir_flow_close(flow);
		flow = NULL;
		ReleaseCurrentSubTransaction();
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(cxt);
		error = CopyErrorData();
		FlushErrorState();
		RollbackAndReleaseCurrentSubTransaction();
	}
	PG_END_TRY();
	MemoryContextSwitchTo(cxt);
	CurrentResourceOwner = owner;
	weir_stream_in_worker = false;
	if (flow != NULL)
		weir_flow_close(flow);
	weir_batch_forget_skips(&member);
	weir_state_private_end();
	if (error == NULL)
		return;

	if (weir_batch_is_transient(error))
		ReThrowError(error);
	ereport(WARNING,
			(errcode(error->sqlerrcode),
			 errmsg("continuous view %s is dumped without its state", s->name),
			 errdetail("%s.", error->message),
			 errhint("Remove the cause, and dump it again.")));
	tuplestore_clear(s->store); /* the header may be in it */
	s->ngroups = s->nlate = 0;
	h->layout = NULL;
	h->sqlstate = pstrdup(unpack_sql_state(error->sqlerrcode));
	h->error = pstrdup(error->message);
	header_out(h, &texts);
	put(s, PART_VIEW, &texts);
}

/* May the reader have all there is of the view? */
static bool
may_read(Oid view)
{
	return object_ownercheck(RelationRelationId, view, GetUserId()) ||
		   has_privs_of_role(GetUserId(), ROLE_PG_READ_ALL_DATA);
}

/*
 * The heap must be the one of the generation that the snapshot shows: a swap, or
 * REFRESH WITH NO DATA, puts another in its place for all snapshots, with windows
 * that are groups here, and of events that are not in this dump.  Our lock keeps
 * it from now on.
 */
static void
check_heap(PortalScan *s, const WeirWish *wish)
{
	WeirPositionRow then;
	WeirPositionRow now;

	if (!weir_catalog_position_get(wish->view, -1, s->base.rs_snapshot, &then,
								   NULL))
	{
		then.generation = wish->generation;
		then.final_rows = 0;
	}
	if (!weir_catalog_position_get(wish->view, -1, NULL, &now, NULL))
		now.generation = -1;
	if (then.generation == now.generation)
		return;
	if (then.final_rows == 0 &&
		!table_scan_getnextslot(s->heap, ForwardScanDirection, s->heap_slot))
	{
		table_rescan(s->heap, NULL);
		return;
	}
	ereport(ERROR,
			(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
			 errmsg("continuous view %s cannot be dumped", s->name),
			 errdetail("It has been rebuilt or emptied by REFRESH since the "
					   "dump's snapshot was taken."),
			 errhint("Dump again.")));
}

/* Begin with a view; false: there is nothing to be said about it. */
static bool
enter_view(PortalScan *s, const WeirWish *wish)
{
	MemoryContext old;
	ResourceOwner owner;
	Relation stream;

	if (wish->wanted == WEIR_WANT_STOP || !may_read(wish->view))
		return false;
	LockRelationOid(wish->view, AccessShareLock);
	LockRelationOid(wish->stream, AccessShareLock);
	s->rel = try_relation_open(wish->view, NoLock);
	stream = try_relation_open(wish->stream, NoLock);
	if (s->rel == NULL || stream == NULL)
	{
		/* dropped since the snapshot */
		if (s->rel != NULL)
			relation_close(s->rel, NoLock);
		if (stream != NULL)
			relation_close(stream, NoLock);
		s->rel = NULL;
		return false;
	}
	weir_shmem_require();
	old = MemoryContextSwitchTo(s->view_cxt);
	s->name = qualified_name(wish->view);
	s->settings = settings_of(wish->view);
	s->ngroups = s->nlate = s->nfinal = 0;
	s->ended = false;

	/* its file must outlive the subtransactions in which it is filled */
	owner = CurrentResourceOwner;
	CurrentResourceOwner = s->owner;
	s->store = tuplestore_begin_heap(false, false, work_mem);
	CurrentResourceOwner = owner;
	s->stored = MakeSingleTupleTableSlot(RelationGetDescr(s->base.rs_rd),
										 &TTSOpsMinimalTuple);
	s->heap_slot = table_slot_create(s->rel, NULL);
	s->io = palloc0((RelationGetDescr(s->rel)->natts + 1) * sizeof(WeirTypeIO));
	for (int i = 0; i < RelationGetDescr(s->rel)->natts; i++)
		weir_type_io_init(&s->io[i],
						  TupleDescAttr(RelationGetDescr(s->rel), i)->atttypid);
	s->heap = table_beginscan(s->rel, s->base.rs_snapshot, 0, NULL);
	check_heap(s, wish);
	make_state(s, wish, stream);
	relation_close(stream, NoLock);
	MemoryContextSwitchTo(old);
	return true;
}

/* More rows into the empty store: final ones, at last the end. */
static void
refill(PortalScan *s)
{
	MemoryContext cxt = AllocSetContextCreate(s->view_cxt, "weir portal row",
											  ALLOCSET_DEFAULT_SIZES);
	MemoryContext old = MemoryContextSwitchTo(cxt);
	int natts = RelationGetDescr(s->rel)->natts;
	WeirSecure secure;
	int n = 0;

	tuplestore_clear(s->store);
	weir_secure_enter(&secure, owner_of(s->rel), s->settings);
	while (n++ < FILL_ROWS && !s->ended)
	{
		WeirTexts texts = {0};

		CHECK_FOR_INTERRUPTS();
		if (table_scan_getnextslot(s->heap, ForwardScanDirection, s->heap_slot))
		{
			slot_getallattrs(s->heap_slot);
			for (int i = 0; i < natts; i++)
				weir_texts_add_value(&texts, &s->io[i],
									 s->heap_slot->tts_values[i],
									 s->heap_slot->tts_isnull[i]);
			put(s, PART_FINAL, &texts);
			s->nfinal++;
		}
		else
		{
			weir_texts_add_int(&texts, s->ngroups);
			weir_texts_add_int(&texts, s->nlate);
			weir_texts_add_int(&texts, s->nfinal);
			put(s, PART_END, &texts);
			s->ended = true;
		}
		MemoryContextReset(cxt);
	}
	weir_secure_leave(&secure);
	MemoryContextSwitchTo(old);
	MemoryContextDelete(cxt);
}

static bool
portal_getnextslot(TableScanDesc scan, ScanDirection direction,
				   TupleTableSlot *slot)
{
	PortalScan *s = (PortalScan *) scan;

	if (!ScanDirectionIsForward(direction))
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("table weir.view_dump can only be read forward")));
	ExecClearTuple(slot);
	if (!s->started)
	{
		MemoryContext old = MemoryContextSwitchTo(s->cxt);

		if (is_portal(scan->rs_rd))
			s->wishes = weir_catalog_wish_all_at(s->base.rs_snapshot);
		s->next = 0;
		s->started = true;
		MemoryContextSwitchTo(old);
	}
	for (;;)
	{
		if (s->name == NULL)
		{
			if (s->next >= list_length(s->wishes))
				return false;
			if (!enter_view(s, list_nth(s->wishes, s->next++)))
				continue;
		}
		if (tuplestore_gettupleslot(s->store, true, false, s->stored))
			break;
		if (s->ended)
			leave_view(s);
		else
			refill(s);
	}
	slot_getallattrs(s->stored);
	memcpy(slot->tts_values, s->stored->tts_values, Natts_dump * sizeof(Datum));
	memcpy(slot->tts_isnull, s->stored->tts_isnull, Natts_dump * sizeof(bool));
	ExecStoreVirtualTuple(slot);
	slot->tts_tableOid = RelationGetRelid(scan->rs_rd);
	return true;
}


/* ---------- writing ---------- */

/* What a transaction knows of a view that it writes rows of; forgotten when a
 * subtransaction aborts. */
typedef struct Import
{
	char *name;
	Oid view;	   /* InvalidOid: rows are left out */
	bool complete; /* what waits is: rows are left out */
} Import;

static List *imports = NIL; /* in TopTransactionContext */

/* Does a row of this part wait?  Its data, and is it a superuser's, if asked. */
static bool
find_import(Oid view, const char *part, WeirTexts *texts, bool *trusted)
{
	Relation rel =
		weir_catalog_open("view_import", Natts_import, AccessShareLock);
	Snapshot snapshot = RegisterSnapshot(GetLatestSnapshot());
	ScanKeyData keys[2];
	SysScanDesc scan;
	HeapTuple tuple;
	bool found;

	ScanKeyInit(&keys[0], Anum_import_view, BTEqualStrategyNumber, F_OIDEQ,
				ObjectIdGetDatum(view));
	ScanKeyInit(&keys[1], Anum_import_part, BTEqualStrategyNumber, F_TEXTEQ,
				CStringGetTextDatum(part));
	keys[1].sk_collation = DEFAULT_COLLATION_OID;
	scan = systable_beginscan(rel, weir_catalog_table("view_import_idx"), true,
							  snapshot, 2, keys);
	tuple = systable_getnext(scan);
	found = HeapTupleIsValid(tuple);
	if (found && texts != NULL)
	{
		Datum values[Natts_import];
		bool nulls[Natts_import];

		heap_deform_tuple(tuple, RelationGetDescr(rel), values, nulls);
		weir_texts_from_array(texts, values[Anum_import_data - 1]);
		*trusted = DatumGetBool(values[Anum_import_trusted - 1]);
	}
	systable_endscan(scan);
	UnregisterSnapshot(snapshot);
	table_close(rel, AccessShareLock);
	return found;
}

static void
left_out(const char *name, const char *why)
{
	ereport(WARNING,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("dumped state of continuous view %s is left out", name),
			 errdetail_internal("%s", why)));
}

/* The view of a row, looked up once in a transaction; part: of the first row. */
static Import *
import_of(const char *name, const char *part)
{
	MemoryContext old;
	RangeVar *rv;
	Import *import;
	ListCell *lc;
	WeirWish wish;
	Oid view;

	foreach(lc, imports)
	{
		import = lfirst(lc);
		if (strcmp(import->name, name) == 0)
			return import;
	}
	old = MemoryContextSwitchTo(TopTransactionContext);
	import = palloc0(sizeof(Import));
	import->name = pstrdup(name);
	imports = lcons(import, imports);
	MemoryContextSwitchTo(old);

	rv = makeRangeVarFromNameList(weir_parse_name(name));
	view = RangeVarGetRelid(rv, RowExclusiveLock, true);
	if (!OidIsValid(view) || !weir_catalog_is_continuous_oid(view))
		left_out(name, "There is no such continuous view.");
	else if (!weir_catalog_wish_get(view, &wish) ||
			 wish.wanted != WEIR_WANT_STOP)
		left_out(name, "It has been started already.");
	else if (!object_ownercheck(RelationRelationId, view, GetUserId()))
		aclcheck_error(ACLCHECK_NOT_OWNER, OBJECT_MATVIEW, get_rel_name(view));
	else if (find_import(view, PART_VIEW, NULL, NULL) ==
			 (strcmp(part, PART_VIEW) == 0))
	{
		if (strcmp(part, PART_VIEW) != 0)
			weir_texts_are_bad("a row before that of part \"view\"");
		left_out(name, "Such a state waits already for its REFRESH.");
	}
	else
	{
		import->view = view;
		import->complete = find_import(view, PART_END, NULL, NULL);
	}
	return import;
}

/* Rows for the heap of one view after another. */
typedef struct FinalWriter
{
	Oid view; /* InvalidOid: none */
	Relation rel;
	TupleTableSlot *slot;
	EState *estate;
	ResultRelInfo *result_rel;
	WeirTypeIO *io;
	char *settings;
} FinalWriter;

static void
close_writer(FinalWriter *w)
{
	if (!OidIsValid(w->view))
		return;
	ExecCloseIndices(w->result_rel);
	FreeExecutorState(w->estate);
	ExecDropSingleTupleTableSlot(w->slot);
	table_close(w->rel, NoLock);
	w->view = InvalidOid;
}

static void
open_writer(FinalWriter *w, Oid view)
{
	TupleDesc desc;

	close_writer(w);
	w->view = view;
	w->rel = table_open(view, RowExclusiveLock);
	w->settings = settings_of(view);
	desc = RelationGetDescr(w->rel);
	w->slot = table_slot_create(w->rel, NULL);
	w->estate = CreateExecutorState();
	w->result_rel = makeNode(ResultRelInfo);
	InitResultRelInfo(w->result_rel, w->rel, 1, NULL, 0);
	ExecOpenIndices(w->result_rel, false);
	w->io = palloc0((desc->natts + 1) * sizeof(WeirTypeIO));
	for (int i = 0; i < desc->natts; i++)
		weir_type_io_init(&w->io[i], TupleDescAttr(desc, i)->atttypid);
}

static void
write_final(FinalWriter *w, WeirTexts *texts, CommandId cid)
{
	TupleDesc desc = RelationGetDescr(w->rel);
	WeirSecure secure;

	weir_secure_enter(&secure, owner_of(w->rel), w->settings);
	ExecClearTuple(w->slot);
	for (int i = 0; i < desc->natts; i++)
		w->slot->tts_values[i] = weir_texts_next_value(
			texts, &w->io[i], TupleDescAttr(desc, i)->atttypmod,
			&w->slot->tts_isnull[i]);
	weir_texts_end(texts);
	ExecStoreVirtualTuple(w->slot);
	table_tuple_insert(w->rel, w->slot, cid, 0, NULL);
	if (w->result_rel->ri_NumIndices > 0)
		weir_insert_index_tuples(w->result_rel, w->slot, w->estate);
	ResetPerTupleExprContext(w->estate);
	weir_secure_leave(&secure);
}

static void
write_import(Relation rel, CatalogIndexState indexes, Oid view,
			 const char *part, Datum data)
{
	Datum values[Natts_import];
	bool nulls[Natts_import] = {false};

	values[Anum_import_view - 1] = ObjectIdGetDatum(view);
	values[Anum_import_part - 1] = CStringGetTextDatum(part);
	values[Anum_import_trusted - 1] = BoolGetDatum(superuser());
	values[Anum_import_data - 1] = data;
	CatalogTupleInsertWithInfo(
		rel, heap_form_tuple(RelationGetDescr(rel), values, nulls), indexes);
}

/* What a subscription brings is of other views, whatever their names. */
static void
portal_multi_insert(Relation portal, TupleTableSlot **slots, int n,
					CommandId cid, int options, BulkInsertState bistate)
{
	MemoryContext call = AllocSetContextCreate(
		CurrentMemoryContext, "weir portal insert", ALLOCSET_DEFAULT_SIZES);
	MemoryContext cxt =
		AllocSetContextCreate(call, "weir portal row", ALLOCSET_DEFAULT_SIZES);
	MemoryContext old = MemoryContextSwitchTo(call);
	FinalWriter writer = {0};
	Relation rel;
	CatalogIndexState indexes;

	if (!is_portal(portal))
		ereport(ERROR, (errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
						errmsg("access method \"weir_portal\" is for table "
							   "weir.view_dump alone")));
	weir_shmem_require();
	if (IsLogicalWorker())
	{
		MemoryContextSwitchTo(old);
		MemoryContextDelete(call);
		return;
	}
	rel = weir_catalog_open("view_import", Natts_import, RowExclusiveLock);
	indexes = CatalogOpenIndexes(rel);
	for (int i = 0; i < n; i++)
	{
		WeirTexts texts = {0};
		Import *import;
		char *part;
		Datum data;

		CHECK_FOR_INTERRUPTS();
		weir_debug_point("restore-row");
		MemoryContextSwitchTo(cxt);
		slot_getallattrs(slots[i]);
		part = TextDatumGetCString(slots[i]->tts_values[Anum_dump_part - 1]);
		data = slots[i]->tts_values[Anum_dump_data - 1];
		import = import_of(
			TextDatumGetCString(slots[i]->tts_values[Anum_dump_view - 1]),
			part);
		if (!OidIsValid(import->view) || import->complete)
			;
		else if (strcmp(part, PART_FINAL) == 0)
		{
			if (writer.view != import->view)
			{
				MemoryContextSwitchTo(call);
				open_writer(&writer, import->view);
				MemoryContextSwitchTo(cxt);
			}
			weir_texts_from_array(&texts, data);
			write_final(&writer, &texts, cid);
		}
		else if (strcmp(part, PART_VIEW) == 0 ||
				 strcmp(part, PART_GROUP) == 0 ||
				 strcmp(part, PART_LATE) == 0 || strcmp(part, PART_END) == 0)
		{
			write_import(rel, indexes, import->view, part, data);
			import->complete = strcmp(part, PART_END) == 0;
		}
		else
			weir_texts_are_bad("a row of no known part");
		MemoryContextReset(cxt);
	}
	MemoryContextSwitchTo(call);
	close_writer(&writer);
	CatalogCloseIndexes(indexes);
	table_close(rel, NoLock);
	MemoryContextSwitchTo(old);
	MemoryContextDelete(call);
}

static void
portal_tuple_insert(Relation portal, TupleTableSlot *slot, CommandId cid,
					int options, BulkInsertState bistate)
{
	portal_multi_insert(portal, &slot, 1, cid, options, bistate);
}


/* ---------- taking what waits ---------- */

/* Views whose position is the number of this transaction. */
typedef struct Adopted
{
	Oid view;
	int64 generation;
} Adopted;

static List *adopted = NIL; /* in TopTransactionContext */

static void
refuse(Oid view, int code, const char *why)
{
	ereport(ERROR,
			(errcode(code),
			 errmsg("dumped state of continuous view \"%s\" cannot be taken",
					get_rel_name(view)),
			 errdetail_internal("%s", why),
			 errhint("To begin anew from the events that are left, use REFRESH "
					 "MATERIALIZED VIEW ... WITH NO DATA first.")));
}

/* The rows of a part, one by one. */
typedef struct ImportScan
{
	Relation rel;
	Snapshot snapshot;
	SysScanDesc scan;
	MemoryContext cxt; /* of the scan, which allocates on its way */
	int64 count;
	bool trusted; /* all rows so far are a superuser's */
} ImportScan;

static void
open_part(ImportScan *s, Oid view, const char *part)
{
	ScanKeyData keys[2];

	s->rel = weir_catalog_open("view_import", Natts_import, AccessShareLock);
	s->snapshot = RegisterSnapshot(GetLatestSnapshot());
	s->cxt = CurrentMemoryContext;
	s->count = 0;
	s->trusted = true;
	ScanKeyInit(&keys[0], Anum_import_view, BTEqualStrategyNumber, F_OIDEQ,
				ObjectIdGetDatum(view));
	ScanKeyInit(&keys[1], Anum_import_part, BTEqualStrategyNumber, F_TEXTEQ,
				CStringGetTextDatum(part));
	keys[1].sk_collation = DEFAULT_COLLATION_OID;
	s->scan = systable_beginscan(s->rel, weir_catalog_table("view_import_idx"),
								 true, s->snapshot, 2, keys);
}

/* The next, in the current context. */
static bool
next_of_part(WeirTexts *texts, void *arg)
{
	ImportScan *s = arg;
	MemoryContext old = MemoryContextSwitchTo(s->cxt);
	HeapTuple tuple = systable_getnext(s->scan);
	bool isnull;

	MemoryContextSwitchTo(old);
	CHECK_FOR_INTERRUPTS();
	if (!HeapTupleIsValid(tuple))
		return false;
	memset(texts, 0, sizeof(*texts));
	weir_texts_from_array(texts,
						  heap_getattr(tuple, Anum_import_data,
									   RelationGetDescr(s->rel), &isnull));
	s->trusted = s->trusted &&
				 DatumGetBool(heap_getattr(tuple, Anum_import_trusted,
										   RelationGetDescr(s->rel), &isnull));
	s->count++;
	return true;
}

static void
close_part(ImportScan *s)
{
	systable_endscan(s->scan);
	UnregisterSnapshot(s->snapshot);
	table_close(s->rel, AccessShareLock);
}

static int64
count_heap(Oid view)
{
	Relation rel = table_open(view, AccessShareLock);
	Snapshot snapshot = RegisterSnapshot(GetLatestSnapshot());
	TableScanDesc scan = table_beginscan(rel, snapshot, 0, NULL);
	TupleTableSlot *slot = table_slot_create(rel, NULL);
	int64 n = 0;

	while (table_scan_getnextslot(scan, ForwardScanDirection, slot))
	{
		CHECK_FOR_INTERRUPTS();
		n++;
	}
	ExecDropSingleTupleTableSlot(slot);
	table_endscan(scan);
	UnregisterSnapshot(snapshot);
	table_close(rel, AccessShareLock);
	return n;
}

/* Events of the stream, also those this transaction has put there. */
static int64
count_events(Relation stream, TimestampTz *watermark)
{
	Snapshot snapshot;
	WeirWatermark mark;
	int64 n;

	weir_stream_flush(RelationGetRelid(stream));
	CommandCounterIncrement();
	snapshot = RegisterSnapshot(GetLatestSnapshot());
	n = (int64) weir_log_count(stream, snapshot);
	UnregisterSnapshot(snapshot);

	/* its own have no record yet: they are not whole */
	PushCopiedSnapshot(GetTransactionSnapshot());
	GetActiveSnapshot()->curcid = FirstCommandId;
	weir_log_watermark(stream, GetActiveSnapshot(), &mark);
	PopActiveSnapshot();
	*watermark = mark.watermark;
	return n;
}

/* The groups that wait, as the checkpoint that row is about. */
static void
write_groups(const WeirViewPlan *plan, const ViewHeader *h,
			 WeirPositionRow *row, int64 ngroups)
{
	MemoryContext cxt = AllocSetContextCreate(
		CurrentMemoryContext, "weir adopted group", ALLOCSET_DEFAULT_SIZES);
	WeirCheckpointWriter *writer;
	WeirGroupReader *reader;
	WeirTexts texts;
	ImportScan scan;
	WeirSecure secure;
	MemoryContext old;
	bool serial;

	weir_secure_enter(&secure, plan->owner, settings_of(plan->view));
	reader = weir_group_reader_create(plan);
	if (strcmp(h->layout, weir_group_reader_layout(reader, true)) != 0)
		refuse(plan->view, ERRCODE_FEATURE_NOT_SUPPORTED,
			   h->major == WEIR_SERVER_MAJOR
				   ? "Its aggregates are kept in another form than in the dump."
				   : psprintf("Its aggregates are kept in another form than in "
							  "the dump, which PostgreSQL %d wrote.",
							  (int) h->major));
	serial = weir_group_reader_any_serial(reader);
	row->layout = weir_group_reader_layout(reader, false);
	writer = weir_checkpoint_begin(row);
	open_part(&scan, plan->view, PART_GROUP);
	old = MemoryContextSwitchTo(cxt);
	while (next_of_part(&texts, &scan))
	{
		WeirGroup g;

		if (serial && !scan.trusted)
			refuse(plan->view, ERRCODE_INSUFFICIENT_PRIVILEGE,
				   "It holds states of aggregates that are only taken from "
				   "superusers.");
		weir_group_reader_in(reader, &texts, &g);
		MemoryContextSwitchTo(old);
		weir_checkpoint_add(writer, &g);
		MemoryContextSwitchTo(cxt);
		MemoryContextReset(cxt);
	}
	MemoryContextSwitchTo(old);
	if (scan.count != ngroups)
		weir_texts_are_bad("another number of groups than at the end");
	close_part(&scan);
	weir_checkpoint_end(writer);
	weir_secure_leave(&secure);
	MemoryContextDelete(cxt);
}

/* W of the stream, and its end: what the retained events do not say. */
static void
adopt_stream(Relation rel, const ViewHeader *h, TimestampTz watermark)
{
	Oid stream = RelationGetRelid(rel);
	TimestampTz at;

	if (h->ended && !weir_catalog_stream_end(stream, &at))
		weir_catalog_set_stream_end(stream, h->ended_at);
	if (h->stream_watermark > watermark &&
		(h->ended || !TIMESTAMP_IS_NOEND(h->stream_watermark)))
		weir_stream_heartbeat(rel, h->stream_watermark,
							  h->ended ? WEIR_RECORD_HEARTBEAT
									   : WEIR_RECORD_KEPT);
}

bool
weir_portal_adopt(const WeirViewPlan *plan, WeirWish *wish)
{
	Oid view = wish->view;
	WeirPositionRow row;
	WeirTexts texts = {0};
	ViewHeader h;
	ImportScan late;
	Relation stream;
	TimestampTz watermark;
	MemoryContext old;
	Adopted *a;
	bool trusted;
	bool ignored;
	int64 ngroups;
	int64 nlate;
	int64 nfinal;
	int64 events;

	if (!find_import(view, PART_VIEW, &texts, &trusted))
		return false;
	header_in(&h, &texts, get_rel_name(view));
	if (!find_import(view, PART_END, &texts, &ignored))
		refuse(view, ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
			   "It is not complete.");
	ngroups = weir_texts_next_int(&texts, 0, PG_INT64_MAX);
	nlate = weir_texts_next_int(&texts, 0, PG_INT64_MAX);
	nfinal = weir_texts_next_int(&texts, 0, PG_INT64_MAX);
	weir_texts_end(&texts);
	if (h.layout == NULL)
		refuse(view, ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
			   psprintf("It could not be dumped: %s.", h.error));
	if (count_heap(view) != nfinal)
		weir_texts_are_bad("another number of final rows than at the end");

	/* no writer until this transaction ends: it has the highest number */
	stream = table_open(plan->stream, ShareRowExclusiveLock);
	events = count_events(stream, &watermark);
	if (events > h.events)
		refuse(view, ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
			   psprintf("Stream \"%s\" holds %lld events, at the dump it held "
						"%lld: those it has counted cannot be told from "
						"others.",
						RelationGetRelationName(stream), (long long) events,
						(long long) h.events));

	row = h.row;
	row.view = view;
	row.generation = wish->generation;
	row.answering = true;
	row.built = true;
	row.failed_resumes = -1;
	if (h.error != NULL)
	{
		row.failed_resumes = WEIR_LOST;
		row.sqlstate = h.sqlstate;
		row.error = psprintf("%s%s", FAILED_PREFIX, h.error);
	}
	write_groups(plan, &h, &row, ngroups);

	open_part(&late, view, PART_LATE);
	if (nlate > 0)
		weir_late_in(view, plan, next_of_part, &late);
	close_part(&late);

	if (object_ownercheck(RelationRelationId, plan->stream, GetUserId()) ||
		(trusted && superuser()))
		adopt_stream(stream, &h, watermark);
	table_close(stream, NoLock);
	/* also if the stream was left out of the dump, or of the restore */
	wish->since = h.trimmed || events < h.events
					  ? WEIR_SINCE_LOST
					  : weir_catalog_trimmed(plan->stream, NULL);
	wish->kept_through = PG_INT64_MIN;
	wish->wanted = h.wanted;
	weir_catalog_forget_import(view);

	old = MemoryContextSwitchTo(TopTransactionContext);
	a = palloc(sizeof(Adopted));
	a->view = view;
	a->generation = wish->generation;
	adopted = lappend(adopted, a);
	MemoryContextSwitchTo(old);
	weir_debug_point("restore-adopted");
	return true;
}

/*
 * Those of which the row is not there any more were dropped, or belonged to a
 * subtransaction that has aborted.
 */
void
weir_portal_pre_commit(bool prepare)
{
	ListCell *lc;

	if (adopted != NIL && prepare)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("cannot PREPARE a transaction that has started a "
						"continuous view from a dump")));
	foreach(lc, adopted)
	{
		Adopted *a = lfirst(lc);
		WeirPositionRow row;
		ItemPointerData tid;
		TimestampTz arrival;

		PushActiveSnapshot(GetTransactionSnapshot());
		if (weir_catalog_position_get(a->view, a->generation, NULL, &row, &tid))
		{
			row.position = weir_order_enter(&arrival);
			weir_debug_point("restore-number");
			if (!weir_catalog_position_put(&row, &tid))
				elog(ERROR, "position of view %u was changed", a->view);
		}
		PopActiveSnapshot();
	}
	/* the position is durable as a number of the log would be */
	if (adopted != NIL)
		weir_order_cover();
}

/* What was looked up may have been made by what is gone. */
void
weir_portal_at_subabort(void)
{
	imports = NIL;
}

void
weir_portal_at_end(void)
{
	adopted = NIL;
	imports = NIL;
}


/* ---------- the access method ---------- */

static void
refuse_change(const char *what)
{
	ereport(ERROR, (errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					errmsg("cannot %s table weir.view_dump", what),
					errhint("It is there for pg_dump and its restore.")));
}

static TM_Result
portal_delete(Relation rel, ItemPointer tid, CommandId cid, Snapshot snapshot,
			  Snapshot crosscheck, bool wait, TM_FailureData *failure,
			  bool changing_part)
{
	refuse_change("delete from");
	return TM_Ok;
}

static TM_Result
portal_update(Relation rel, ItemPointer tid, TupleTableSlot *slot,
			  CommandId cid, Snapshot snapshot, Snapshot crosscheck, bool wait,
			  TM_FailureData *failure, LockTupleMode *mode,
			  WeirUpdateIndexes *indexes)
{
	refuse_change("update");
	return TM_Ok;
}

static TM_Result
portal_lock(Relation rel, ItemPointer tid, Snapshot snapshot,
			TupleTableSlot *slot, CommandId cid, LockTupleMode mode,
			LockWaitPolicy policy, uint8 flags, TM_FailureData *failure)
{
	refuse_change("lock rows of");
	return TM_Ok;
}

static void
portal_speculative(Relation rel, TupleTableSlot *slot, CommandId cid,
				   int options, BulkInsertState bistate, uint32 token)
{
	refuse_change("use ON CONFLICT on");
}

static bool
portal_fetch(Relation rel, ItemPointer tid, Snapshot snapshot,
			 TupleTableSlot *slot)
{
	refuse_change("fetch rows by place from");
	return false;
}

static bool
portal_tid_valid(TableScanDesc scan, ItemPointer tid)
{
	return false;
}

static void
portal_latest_tid(TableScanDesc scan, ItemPointer tid)
{
}

static double
portal_index_build(Relation rel, Relation index, IndexInfo *info,
				   bool allow_sync, bool anyvisible, bool progress,
				   BlockNumber start, BlockNumber nblocks,
				   IndexBuildCallback callback, void *state, TableScanDesc scan)
{
	refuse_change("create an index on");
	return 0;
}

static void
portal_index_validate(Relation rel, Relation index, IndexInfo *info,
					  Snapshot snapshot, ValidateIndexState *state)
{
	refuse_change("create an index on");
}

static void
portal_copy_cluster(Relation old_rel, Relation new_rel, Relation index,
					bool use_sort, TransactionId oldest_xmin,
					TransactionId *xid_cutoff, MultiXactId *multi_cutoff,
					double *num_tuples, double *tups_vacuumed,
					double *tups_recently_dead)
{
	*num_tuples = *tups_vacuumed = *tups_recently_dead = 0;
}

static bool
portal_sample_block(TableScanDesc scan, struct SampleScanState *state)
{
	refuse_change("use TABLESAMPLE on");
	return false;
}

static bool
portal_needs_toast(Relation rel)
{
	return false;
}

PG_FUNCTION_INFO_V1(weir_portal_handler);

/* Its file is heap's, and empty. */
Datum
weir_portal_handler(PG_FUNCTION_ARGS)
{
	static TableAmRoutine methods;
	TableAmRoutine *m = &methods;

	if (m->type != T_TableAmRoutine)
	{
		*m = *GetHeapamTableAmRoutine();
		m->slot_callbacks = portal_slot_callbacks;
		m->scan_begin = portal_scan_begin;
		m->scan_end = portal_scan_end;
		m->scan_rescan = portal_scan_rescan;
		m->scan_getnextslot = portal_getnextslot;
		m->scan_set_tidrange = NULL;
		m->scan_getnextslot_tidrange = NULL;
		m->tuple_fetch_row_version = portal_fetch;
		m->tuple_tid_valid = portal_tid_valid;
		m->tuple_get_latest_tid = portal_latest_tid;
		m->tuple_insert = portal_tuple_insert;
		m->tuple_insert_speculative = portal_speculative;
		m->multi_insert = portal_multi_insert;
		m->tuple_delete = portal_delete;
		m->tuple_update = portal_update;
		m->tuple_lock = portal_lock;
		m->finish_bulk_insert = NULL;
		m->relation_copy_for_cluster = portal_copy_cluster;
		m->index_build_range_scan = portal_index_build;
		m->index_validate_scan = portal_index_validate;
		m->relation_needs_toast_table = portal_needs_toast;
		m->scan_sample_next_block = portal_sample_block;
	}
	PG_RETURN_POINTER(m);
}
