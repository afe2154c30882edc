/*-------------------------------------------------------------------------
 *
 * late.c
 *	  Late tables: where a view's option late_table keeps the events that
 *	  entered none of its windows.
 *
 * Relies on: flow.c tells of each late event while the scan stands at it, and
 * brackets batches; checkpoint.c calls weir_late_write in the transaction that
 * writes the position.
 *
 * Guarantees: one row in the late table for each event counted in `late` from
 * the moment the option was set, written in the transaction that makes the
 * position durable; so neither a crash nor an error doubles or loses one.
 *
 * The table is the user's: an ordinary heap table, made by the statement that
 * sets the option, as the view's owner, so that his rights count and he hears
 * at once of what is wrong.  pg_depend (view -> table, normal) says which table
 * it is; the text of the option follows renames for \d and pg_dump.  A dump
 * restores the table before the view: hence a table that is there is taken if
 * it fits.  It fits when it has the four columns of late_columns and those it
 * has in common with the stream have the same types; a column of the stream
 * that it lacks is left out.  Several views may share one, as every row says
 * whose it is.
 *
 * Rows are written by plain INSERT and DELETE as the view's owner, so that
 * rights, defaults, constraints and indexes are all honoured.  Triggers, foreign
 * keys, rules and row security would run, or hide, more than that in a worker:
 * such a table is refused, at each write.
 *
 * On its way an event is
 *
 *	uint32	length of all, a multiple of 8
 *	int64	window_end
 *	int64	watermark
 *	int64	arrived_at
 *			the MinimalTuple of the stream's columns
 *
 * in a log of this process, the last part of which is in memory, the rest in a
 * temporary file.  Its end is cut back to what is published when a batch is
 * discarded.  The log dies with the process, while state and position stay in
 * shared memory: WeirViewShared.owes_rows tells the successor that the position
 * is ahead of what can be written, so that it begins at the checkpoint.
 *
 * A rebuild's late events wait in weir.late_pending; the swap moves them.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/relation.h"
#include "access/table.h"
#include "catalog/dependency.h"
#include "catalog/indexing.h"
#include "catalog/namespace.h"
#include "catalog/pg_am.h"
#include "catalog/pg_attribute.h"
#include "catalog/pg_class.h"
#include "catalog/pg_depend.h"
#include "catalog/pg_type.h"
#include "catalog/toasting.h"
#include "commands/tablecmds.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "storage/fd.h"
#include "storage/lmgr.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/queryenvironment.h"
#include "utils/regproc.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"
#include "utils/tuplestore.h"
#include "utils/wait_event.h"

#include "chunk.h"
#include "compat.h"
#include "debug.h"
#include "late.h"
#include "secure.h"

#define MEMORY_BYTES (1024 * 1024)		 /* of the log; the rest is a file */
#define LARGE_BYTES	 (16 * 1024 * 1024)	 /* ask for a checkpoint */
#define MAX_BYTES	 (256 * 1024 * 1024) /* take no further batch */
#define INSERT_ROWS	 4096

/* What an event in the log begins with; the MinimalTuple follows. */
typedef struct LateHeader
{
	uint32 length;
	uint32 zero;
	int64 window_end;
	TimestampTz watermark;
	TimestampTz arrived_at;
} LateHeader;

StaticAssertDecl(sizeof(LateHeader) == 32, "late header has holes");

struct WeirLate
{
	MemoryContext cxt; /* "weir late" */
	Oid view;
	Oid table; /* InvalidOid: none is wanted */

	/* the log: file, then memory */
	File file; /* -1: none */
	uint64 file_end;
	char *buf;
	Size size;
	Size used;
	uint64 published;

	/* looking up events */
	WeirEventSource source;
	MemoryContext reader_cxt; /* of reader and desc */
	TupleDesc desc;
	WeirChunkReader *reader;
	int chunk; /* of the slice, opened by reader; -1: none */
	MemoryContext row_cxt;
};

/* The columns besides the stream's, in their order; types of window_end: below */
enum
{
	LATE_VIEW,
	LATE_WINDOW_END,
	LATE_WATERMARK,
	LATE_ARRIVED_AT,
	N_LATE_COLUMNS
};

static const char *const late_columns[N_LATE_COLUMNS] = {
	"late_view", "window_end", "watermark", "arrived_at"};

/* Columns of weir.late_pending. */
enum
{
	Anum_late_view = 1,
	Anum_late_generation,
	Anum_late_window_end,
	Anum_late_watermark,
	Anum_late_arrived_at,
	Anum_late_data,
	Natts_late = Anum_late_data
};


/* ---------- the log ---------- */

WeirLate *
weir_late_create(Oid view, MemoryContext parent)
{
	MemoryContext cxt =
		AllocSetContextCreate(parent, "weir late", ALLOCSET_SMALL_SIZES);
	WeirLate *late = MemoryContextAllocZero(cxt, sizeof(WeirLate));

	late->cxt = cxt;
	late->view = view;
	late->file = -1;
	late->chunk = -1;
	return late;
}

static void
close_file(WeirLate *late)
{
	if (late->file >= 0)
		FileClose(late->file);
	late->file = -1;
	late->file_end = 0;
}

void
weir_late_free(WeirLate *late)
{
	close_file(late);
	MemoryContextDelete(late->cxt);
}

void
weir_late_plan(WeirLate *late, const WeirViewOptions *options)
{
	Oid table = InvalidOid;

	if (options->late_table != NULL)
	{
		table = weir_late_table(late->view);
		if (!OidIsValid(table))
			ereport(ERROR,
					(errcode(ERRCODE_UNDEFINED_TABLE),
					 errmsg("continuous view \"%s\" has lost its late table",
							get_rel_name(late->view)),
					 errhint("Reset the option \"late_table\", or set it "
							 "again.")));
	}
	late->table = table;
}

static uint64
log_end(const WeirLate *late)
{
	return late->file_end + late->used;
}

void
weir_late_rewind(WeirLate *late)
{
	if (late->published >= late->file_end)
		late->used = late->published - late->file_end;
	else
	{
		late->file_end = late->published;
		late->used = 0;
	}
}

void
weir_late_check_space(const WeirLate *late)
{
	if (log_end(late) > MAX_BYTES)
		ereport(ERROR,
				(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
				 errmsg("continuous view \"%s\" waits for its late table",
						get_rel_name(late->view)),
				 errdetail("%llu bytes of late events are to be written first.",
						   (unsigned long long) log_end(late))));
}

/*
 * Memory goes to the file, at a place given outright: if it fails, the same
 * bytes are written to the same place next time.
 */
static void
spill(WeirLate *late)
{
	int written;

	if (late->used == 0)
		return;
	if (late->file < 0)
		late->file = OpenTemporaryFile(true);
	errno = 0;
	written = FileWrite(late->file, late->buf, late->used,
						(off_t) late->file_end, WAIT_EVENT_BUFFILE_WRITE);
	if (written < 0 || (Size) written != late->used)
	{
		if (errno == 0)
			errno = ENOSPC;
		ereport(
			ERROR,
			(errcode_for_file_access(),
			 errmsg("could not write late events to a temporary file: %m")));
	}
	late->file_end += late->used;
	late->used = 0;
}

static void
append(WeirLate *late, LateHeader *header, MinimalTuple tuple)
{
	Size length = MAXALIGN(sizeof(LateHeader) + tuple->t_len);
	char *at;

	if (late->used > 0 && late->used + length > MEMORY_BYTES)
		spill(late);
	if (late->used + length > late->size)
	{
		Size size = Max(late->size * 2, 8192);

		size = Max(size, late->used + length);
		late->buf = late->buf == NULL ? MemoryContextAllocHuge(late->cxt, size)
									  : repalloc_huge(late->buf, size);
		late->size = size;
	}
	header->length = (uint32) length;
	header->zero = 0;
	at = late->buf + late->used;
	memset(at + length - MAXIMUM_ALIGNOF, 0, MAXIMUM_ALIGNOF);
	memcpy(at, header, sizeof(LateHeader));
	memcpy(at + sizeof(LateHeader), tuple, tuple->t_len);
	late->used += length;
}

void
weir_late_publish(WeirLate *late)
{
	late->published = log_end(late);
}

bool
weir_late_pending(const WeirLate *late)
{
	return late->published > 0;
}

bool
weir_late_is_large(const WeirLate *late)
{
	return late->published > LARGE_BYTES;
}

void
weir_late_written(WeirLate *late)
{
	close_file(late);
	late->used = 0;
	late->published = 0;
	if (late->size > MEMORY_BYTES)
	{
		pfree(late->buf);
		late->buf = NULL;
		late->size = 0;
	}
}

/*
 * Reads what is published, from the beginning.  An event is valid until the
 * next one is read.
 */
typedef struct LogReader
{
	const WeirLate *late;
	uint64 at;
	char *buf; /* palloc'd */
	Size size;
} LogReader;

static void
read_log(LogReader *r, char *to, Size n)
{
	const WeirLate *late = r->late;

	Ensure(n <= late->published - r->at, "log of late events is too short");
	if (r->at < late->file_end)
	{
		/* no event lies in both */
		int got =
			FileRead(late->file, to, n, (off_t) r->at, WAIT_EVENT_BUFFILE_READ);

		if (got < 0)
			ereport(ERROR,
					(errcode_for_file_access(),
					 errmsg("could not read late events from a temporary "
							"file: %m")));
		Ensure((Size) got == n, "temporary file of late events is too short");
	}
	else
		memcpy(to, late->buf + (r->at - late->file_end), n);
	r->at += n;
}

static bool
next_event(LogReader *r, LateHeader *header, MinimalTuple *tuple)
{
	Size n;

	if (r->at == r->late->published)
		return false;
	CHECK_FOR_INTERRUPTS();
	read_log(r, (char *) header, sizeof(LateHeader));
	Ensure(header->length > sizeof(LateHeader) + SizeofMinimalTupleHeader,
		   "late event is too short");
	n = header->length - sizeof(LateHeader);
	if (n > r->size)
	{
		r->size = Max(n, 8192);
		if (r->buf != NULL)
			pfree(r->buf);
		r->buf = palloc_extended(r->size, MCXT_ALLOC_HUGE);
	}
	read_log(r, r->buf, n);
	*tuple = (MinimalTuple) r->buf;
	Ensure((*tuple)->t_len <= n, "late event has a wrong length");
	return true;
}


/* ---------- an event ---------- */

void
weir_late_slice(WeirLate *late, const WeirEventSource *source)
{
	late->source = *source;
	late->chunk = -1;
}

/* A decoder of all columns for chunks of this descriptor. */
static void
make_reader(WeirLate *late, TupleDesc desc)
{
	MemoryContext old;

	if (late->reader != NULL && equalTupleDescs(late->desc, desc))
		return;
	if (late->row_cxt == NULL)
	{
		late->reader_cxt = AllocSetContextCreate(late->cxt, "weir late decoder",
												 ALLOCSET_DEFAULT_SIZES);
		late->row_cxt = AllocSetContextCreate(late->cxt, "weir late row",
											  ALLOCSET_DEFAULT_SIZES);
	}
	late->reader = NULL;
	MemoryContextReset(late->reader_cxt);
	old = MemoryContextSwitchTo(late->reader_cxt);
	late->desc = CreateTupleDescCopyConstr(desc);
	late->reader = weir_chunk_reader_create(late->desc, NULL);
	MemoryContextSwitchTo(old);
}

bool
weir_late_is_kept(const WeirLate *late)
{
	return OidIsValid(late->table);
}

/*
 * Late events are few, so that the columns which the view does not need are
 * decoded only here.
 */
void
weir_late_add(WeirLate *late, int64 end, TimestampTz watermark)
{
	int chunk;
	int row;
	MemoryContext old;
	Datum *values;
	bool *nulls;
	LateHeader header;

	if (!OidIsValid(late->table))
		return;
	chunk = *late->source.at_chunk;
	row = *late->source.at_row;
	if (late->chunk != chunk)
	{
		make_reader(late, late->source.desc);
		late->chunk = -1;
		weir_chunk_reader_open(late->reader, late->source.images[chunk],
							   late->source.lengths[chunk]);
		late->chunk = chunk;
	}

	old = MemoryContextSwitchTo(late->row_cxt);
	values = palloc0(late->desc->natts * sizeof(Datum));
	nulls = palloc(late->desc->natts * sizeof(bool));
	for (int i = 0; i < late->desc->natts; i++)
	{
		const WeirChunkReader *r = late->reader;

		nulls[i] = TupleDescAttr(late->desc, i)->attisdropped ||
				   r->values[i] == NULL ||
				   (r->nulls[i] != NULL && r->nulls[i][row]);
		if (!nulls[i])
			values[i] = r->values[i][row];
	}
	header.window_end = end;
	header.watermark = watermark;
	header.arrived_at = late->source.arrivals[chunk];
	append(late, &header, weir_form_minimal_tuple(late->desc, values, nulls));
	MemoryContextSwitchTo(old);
	MemoryContextReset(late->row_cxt);
}


/* ---------- the table ---------- */

static Oid
late_column_type(int column, bool is_timestamptz)
{
	switch (column)
	{
		case LATE_VIEW:
			return REGCLASSOID;
		case LATE_WINDOW_END:
			return is_timestamptz ? TIMESTAMPTZOID : TIMESTAMPOID;
		default:
			return TIMESTAMPTZOID;
	}
}

static bool
is_late_column(const char *name)
{
	for (int i = 0; i < N_LATE_COLUMNS; i++)
		if (strcmp(late_columns[i], name) == 0)
			return true;
	return false;
}

/* The column of this name, which is not dropped; NULL: there is none. */
static Form_pg_attribute
find_column(TupleDesc desc, const char *name)
{
	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute att = TupleDescAttr(desc, i);

		if (!att->attisdropped && strcmp(NameStr(att->attname), name) == 0)
			return att;
	}
	return NULL;
}

/* Is this a column of the stream's whose values are stored? */
static bool
is_stored(Form_pg_attribute att)
{
	return !att->attisdropped &&
		   (att->attgenerated == '\0' ||
			att->attgenerated == ATTRIBUTE_GENERATED_STORED);
}

/* The column of the late table that takes one of the stream's; NULL: none. */
static Form_pg_attribute
column_for(TupleDesc table, Form_pg_attribute att)
{
	Form_pg_attribute to;

	if (!is_stored(att) || is_late_column(NameStr(att->attname)))
		return NULL;
	to = find_column(table, NameStr(att->attname));
	if (to == NULL || to->attgenerated != '\0' ||
		to->attidentity == ATTRIBUTE_IDENTITY_ALWAYS)
		return NULL;
	return to;
}

/*
 * Why a relation cannot be the late table of a view, as what can be said of it;
 * NULL: it can.
 */
static const char *
find_fault(Relation rel, TupleDesc stream, bool is_timestamptz)
{
	TupleDesc desc = RelationGetDescr(rel);

	if (rel->rd_rel->relkind != RELKIND_RELATION ||
		rel->rd_rel->relam != HEAP_TABLE_AM_OID)
		return "is not an ordinary table";
	if (rel->rd_rel->relpersistence == RELPERSISTENCE_TEMP)
		return "is temporary";
	if (rel->rd_rel->relrowsecurity)
		return "has row security";
	if (rel->rd_rules != NULL)
		return "has rules";
	if (rel->trigdesc != NULL)
		return "has triggers, or foreign keys, which are triggers";
	for (int i = 0; i < N_LATE_COLUMNS; i++)
	{
		Oid type = late_column_type(i, is_timestamptz);
		Form_pg_attribute att = find_column(desc, late_columns[i]);

		if (att == NULL || att->atttypid != type)
			return psprintf("has no column \"%s\" of type %s", late_columns[i],
							format_type_be(type));
	}
	for (int i = 0; i < stream->natts; i++)
	{
		Form_pg_attribute att = TupleDescAttr(stream, i);
		Form_pg_attribute to = column_for(desc, att);

		if (to != NULL && to->atttypid != att->atttypid)
			return psprintf("has a column \"%s\" of type %s, the stream one of "
							"type %s",
							NameStr(att->attname), format_type_be(to->atttypid),
							format_type_be(att->atttypid));
	}
	return NULL;
}

/* The late table shows its owner what he may read in the stream, not more. */
static void
check_column_rights(Relation stream, TupleDesc table, Oid owner)
{
	TupleDesc desc = RelationGetDescr(stream);
	Oid relid = RelationGetRelid(stream);

	if (pg_class_aclcheck(relid, owner, ACL_SELECT) == ACLCHECK_OK)
		return;
	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute att = TupleDescAttr(desc, i);

		if ((table == NULL ? is_stored(att) : column_for(table, att) != NULL) &&
			pg_attribute_aclcheck(relid, att->attnum, owner, ACL_SELECT) !=
				ACLCHECK_OK)
			ereport(
				ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied for column \"%s\" of stream "
						"\"%s\"",
						NameStr(att->attname), RelationGetRelationName(stream)),
				 errdetail("The late table would show it to the view's "
						   "owner."),
				 errhint("Grant SELECT on it, or set the option "
						 "\"late_table\" to a table without this "
						 "column.")));
	}
}

/*
 * Lock the table, and the stream whose columns it has, against changes without
 * waiting, and see whether events can be written.  As the owner.
 */
static Relation
open_table(WeirLate *late, const WeirViewPlan *plan, TupleDesc *stream_desc)
{
	Relation rel;
	Relation stream;
	const char *fault;

	if (!ConditionalLockRelationOid(late->table, RowExclusiveLock) ||
		!ConditionalLockRelationOid(plan->stream, AccessShareLock))
		ereport(ERROR, (errcode(ERRCODE_LOCK_NOT_AVAILABLE),
						errmsg("could not lock late table of continuous view "
							   "\"%s\"",
							   get_rel_name(late->view))));
	rel = try_relation_open(late->table, NoLock);
	stream = try_relation_open(plan->stream, NoLock);
	if (rel == NULL || stream == NULL)
		ereport(ERROR, (errcode(ERRCODE_UNDEFINED_TABLE),
						errmsg("late table of continuous view \"%s\" does not "
							   "exist any more",
							   get_rel_name(late->view))));
	*stream_desc = CreateTupleDescCopyConstr(RelationGetDescr(stream));
	fault = find_fault(rel, *stream_desc, plan->window.is_timestamptz);
	if (fault != NULL)
		ereport(ERROR, (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
						errmsg("late table \"%s\" of continuous view \"%s\" %s",
							   RelationGetRelationName(rel),
							   get_rel_name(late->view), fault),
						errhint("Change the table, or the view's option "
								"\"late_table\", and call weir.resume().")));
	check_column_rights(stream, RelationGetDescr(rel), plan->owner);
	relation_close(stream, NoLock);
	return rel;
}


/* ---------- writing rows ---------- */

#define ROWS_NAME "weir_late_rows"

/* Rows on their way into the late table, INSERT_ROWS at a time. */
typedef struct Inserter
{
	Oid view;
	TupleDesc stream;
	int ncolumns; /* of the stream's, then the late ones */
	AttrNumber *column;
	TupleDesc desc;
	EphemeralNamedRelationData enr;
	SPIPlanPtr plan;
	Tuplestorestate *store; /* NULL: empty */
	int nrows;
	Datum *values; /* of the stream's row */
	bool *nulls;
	Datum *out;
	bool *out_nulls;
} Inserter;

static char *
table_name(Relation rel)
{
	return quote_qualified_identifier(
		get_namespace_name(RelationGetNamespace(rel)),
		RelationGetRelationName(rel));
}

static void
init_column(TupleDesc desc, int column, const char *name, Oid type,
			int32 typmod, int ndims, Oid collation)
{
	TupleDescInitEntry(desc, column, name, type, typmod, ndims);
	TupleDescInitEntryCollation(desc, column, collation);
}

/* SPI is connected; all is allocated in its memory. */
static void
start_insert(Inserter *ins, Oid view, Relation rel, TupleDesc stream,
			 bool is_timestamptz)
{
	TupleDesc table = RelationGetDescr(rel);
	int natts = stream->natts;
	StringInfoData sql;
	int n = 0;

	memset(ins, 0, sizeof(Inserter));
	ins->view = view;
	ins->stream = stream;
	ins->column = palloc(natts * sizeof(AttrNumber));
	ins->values = palloc(natts * sizeof(Datum));
	ins->nulls = palloc(natts * sizeof(bool));
	for (int i = 0; i < natts; i++)
		if (column_for(table, TupleDescAttr(stream, i)) != NULL)
			ins->column[n++] = i + 1;
	ins->ncolumns = n;
	ins->out = palloc((n + N_LATE_COLUMNS) * sizeof(Datum));
	ins->out_nulls = palloc0((n + N_LATE_COLUMNS) * sizeof(bool));

	initStringInfo(&sql);
	appendStringInfo(&sql, "INSERT INTO %s (", table_name(rel));
	ins->desc = CreateTemplateTupleDesc(n + N_LATE_COLUMNS);
	for (int i = 0; i < n; i++)
	{
		Form_pg_attribute att = TupleDescAttr(stream, ins->column[i] - 1);
		const char *name = NameStr(att->attname);

		init_column(ins->desc, i + 1, name, att->atttypid, att->atttypmod,
					att->attndims, att->attcollation);
		appendStringInfo(&sql, "%s, ", quote_identifier(name));
	}
	for (int i = 0; i < N_LATE_COLUMNS; i++)
	{
		init_column(ins->desc, n + i + 1, late_columns[i],
					late_column_type(i, is_timestamptz), -1, 0, InvalidOid);
		appendStringInfo(&sql, "%s%s", late_columns[i],
						 i < N_LATE_COLUMNS - 1 ? ", " : "");
	}
	appendStringInfoString(&sql, ") SELECT * FROM " ROWS_NAME);

	ins->enr.md.name = pstrdup(ROWS_NAME);
	ins->enr.md.reliddesc = InvalidOid;
	ins->enr.md.tupdesc = ins->desc;
	ins->enr.md.enrtype = ENR_NAMED_TUPLESTORE;
	ins->enr.md.enrtuples = INSERT_ROWS;
	if (SPI_register_relation(&ins->enr) != SPI_OK_REL_REGISTER)
		elog(ERROR, "unexpected result of SPI_register_relation");
	ins->plan = SPI_prepare(sql.data, 0, NULL);
	if (ins->plan == NULL)
		elog(ERROR, "unexpected result of SPI_prepare: %s",
			 SPI_result_code_string(SPI_result));
}

static void
flush_insert(Inserter *ins)
{
	int rc;

	if (ins->store == NULL)
		return;
	ins->enr.reldata = ins->store;
	rc = SPI_execute_plan(ins->plan, NULL, NULL, false, 0);
	if (rc != SPI_OK_INSERT)
		elog(ERROR, "unexpected result of SPI_execute_plan: %s",
			 SPI_result_code_string(rc));
	Ensure(SPI_processed == (uint64) ins->nrows,
		   "late table took %llu rows of %d",
		   (unsigned long long) SPI_processed, ins->nrows);
	tuplestore_end(ins->store);
	ins->store = NULL;
	ins->nrows = 0;
}

static void
put_row(Inserter *ins, const LateHeader *header, MinimalTuple tuple)
{
	HeapTupleData row;
	int n = ins->ncolumns;

	row.t_len = tuple->t_len + MINIMAL_TUPLE_OFFSET;
	row.t_data = (HeapTupleHeader) ((char *) tuple - MINIMAL_TUPLE_OFFSET);
	ItemPointerSetInvalid(&row.t_self);
	row.t_tableOid = InvalidOid;
	heap_deform_tuple(&row, ins->stream, ins->values, ins->nulls);
	for (int i = 0; i < n; i++)
	{
		ins->out[i] = ins->values[ins->column[i] - 1];
		ins->out_nulls[i] = ins->nulls[ins->column[i] - 1];
	}
	ins->out[n + LATE_VIEW] = ObjectIdGetDatum(ins->view);
	ins->out[n + LATE_WINDOW_END] = Int64GetDatum(header->window_end);
	ins->out[n + LATE_WATERMARK] = TimestampTzGetDatum(header->watermark);
	ins->out[n + LATE_ARRIVED_AT] = TimestampTzGetDatum(header->arrived_at);
	if (ins->store == NULL)
		ins->store = tuplestore_begin_heap(false, false, work_mem);
	tuplestore_putvalues(ins->store, ins->desc, ins->out, ins->out_nulls);
	if (++ins->nrows == INSERT_ROWS)
		flush_insert(ins);
}

/*
 * Delete what the table holds of the view, of windows with end > after.  If it
 * is published and has no replica identity, DELETE is refused, also of nothing:
 * so that is not tried.
 */
static void
delete_rows(Oid view, Relation rel, bool is_timestamptz, int64 after)
{
	Oid types[] = {OIDOID, late_column_type(LATE_WINDOW_END, is_timestamptz)};
	Datum values[] = {ObjectIdGetDatum(view), Int64GetDatum(after)};
	bool all = after == PG_INT64_MIN;
	char *rows = psprintf("FROM ONLY %s WHERE late_view = $1%s",
						  table_name(rel), all ? "" : " AND window_end > $2");
	int rc = SPI_execute_with_args(psprintf("SELECT %s LIMIT 1", rows),
								   all ? 1 : 2, types, values, NULL, false, 1);

	if (rc == SPI_OK_SELECT && SPI_processed == 0)
		return;
	if (rc == SPI_OK_SELECT)
		rc = SPI_execute_with_args(psprintf("DELETE %s", rows), all ? 1 : 2,
								   types, values, NULL, false, 0);
	if (rc != SPI_OK_DELETE)
		elog(ERROR, "unexpected result of SPI_execute_with_args: %s",
			 SPI_result_code_string(rc));
}

/* A rebuild's late events, in the order in which they came; index open. */
static void
keep_pending(WeirLate *late, int64 generation)
{
	Relation rel =
		weir_catalog_open("late_pending", Natts_late, RowExclusiveLock);
	CatalogIndexState indexes = CatalogOpenIndexes(rel);
	MemoryContext cxt = AllocSetContextCreate(
		CurrentMemoryContext, "weir late pending", ALLOCSET_DEFAULT_SIZES);
	LogReader reader = {.late = late};
	LateHeader header;
	MinimalTuple tuple;

	while (next_event(&reader, &header, &tuple))
	{
		MemoryContext old = MemoryContextSwitchTo(cxt);
		bytea *data = palloc_extended(VARHDRSZ + tuple->t_len, MCXT_ALLOC_HUGE);
		Datum values[Natts_late];
		bool nulls[Natts_late] = {false};

		SET_VARSIZE(data, VARHDRSZ + tuple->t_len);
		memcpy(VARDATA(data), tuple, tuple->t_len);
		values[Anum_late_view - 1] = ObjectIdGetDatum(late->view);
		values[Anum_late_generation - 1] = Int64GetDatum(generation);
		values[Anum_late_window_end - 1] = Int64GetDatum(header.window_end);
		values[Anum_late_watermark - 1] = TimestampTzGetDatum(header.watermark);
		values[Anum_late_arrived_at - 1] =
			TimestampTzGetDatum(header.arrived_at);
		values[Anum_late_data - 1] = PointerGetDatum(data);
		CatalogTupleInsertWithInfo(
			rel, heap_form_tuple(RelationGetDescr(rel), values, nulls),
			indexes);
		MemoryContextSwitchTo(old);
		MemoryContextReset(cxt);
	}
	MemoryContextDelete(cxt);
	CatalogCloseIndexes(indexes);
	table_close(rel, NoLock);
}

static void
put_pending(Inserter *ins, int64 generation)
{
	Relation rel =
		weir_catalog_open("late_pending", Natts_late, AccessShareLock);
	TupleDesc desc = RelationGetDescr(rel);
	ScanKeyData keys[2];
	SysScanDesc scan;
	HeapTuple tuple;

	ScanKeyInit(&keys[0], Anum_late_view, BTEqualStrategyNumber, F_OIDEQ,
				ObjectIdGetDatum(ins->view));
	ScanKeyInit(&keys[1], Anum_late_generation, BTEqualStrategyNumber, F_INT8EQ,
				Int64GetDatum(generation));
	scan = systable_beginscan(rel, weir_catalog_table("late_pending_idx"), true,
							  GetActiveSnapshot(), 2, keys);
	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		Datum values[Natts_late];
		bool nulls[Natts_late];
		LateHeader header = {0};
		bytea *data;
		Size len;
		MinimalTuple row;

		CHECK_FOR_INTERRUPTS();
		heap_deform_tuple(tuple, desc, values, nulls);
		header.window_end = DatumGetInt64(values[Anum_late_window_end - 1]);
		header.watermark = DatumGetTimestampTz(values[Anum_late_watermark - 1]);
		header.arrived_at =
			DatumGetTimestampTz(values[Anum_late_arrived_at - 1]);
		data = DatumGetByteaPP(values[Anum_late_data - 1]);
		len = VARSIZE_ANY_EXHDR(data);
		Ensure(len >= SizeofMinimalTupleHeader, "late event is too short");
		row = palloc_extended(len, MCXT_ALLOC_HUGE);
		memcpy(row, VARDATA_ANY(data), len);
		Ensure(row->t_len == len, "late event has a wrong length");
		put_row(ins, &header, row);
		pfree(row);
		if ((Pointer) data != DatumGetPointer(values[Anum_late_data - 1]))
			pfree(data);
	}
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
}

/*
 * Write rows as the owner: of the log, or if generation is not -1, of
 * late_pending.  replace: what the table holds of the view goes first, but for
 * windows with end <= kept_through.
 */
static void
write_rows(WeirLate *late, const WeirViewPlan *plan, bool replace,
		   int64 kept_through, int64 generation)
{
	WeirSecure secure;
	TupleDesc stream;
	Relation rel;
	Inserter ins;

	weir_secure_enter(&secure, plan->owner, plan->settings);
	rel = open_table(late, plan, &stream);
	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "unexpected result of SPI_connect");
	if (replace)
		delete_rows(late->view, rel, plan->window.is_timestamptz, kept_through);
	start_insert(&ins, late->view, rel, stream, plan->window.is_timestamptz);
	if (generation != -1)
		put_pending(&ins, generation);
	else
	{
		LogReader reader = {.late = late};
		LateHeader header;
		MinimalTuple tuple;

		while (next_event(&reader, &header, &tuple))
			put_row(&ins, &header, tuple);
	}
	flush_insert(&ins);
	if (SPI_finish() != SPI_OK_FINISH)
		elog(ERROR, "unexpected result of SPI_finish");
	relation_close(rel, NoLock);
	weir_secure_leave(&secure);
}

static WeirTypeIO *
columns_io(TupleDesc desc)
{
	WeirTypeIO *io = palloc0(Max(desc->natts, 1) * sizeof(WeirTypeIO));

	for (int i = 0; i < desc->natts; i++)
		if (!TupleDescAttr(desc, i)->attisdropped)
			weir_type_io_init(&io[i], TupleDescAttr(desc, i)->atttypid);
	return io;
}

void
weir_late_out(WeirLate *late, const WeirViewPlan *plan,
			  void (*callback)(WeirTexts *texts, void *arg), void *arg)
{
	LogReader reader = {.late = late};
	LateHeader header;
	MinimalTuple tuple;
	Relation table;
	Relation stream;
	TupleDesc desc;
	WeirTypeIO *io;
	Datum *values;
	bool *nulls;
	MemoryContext cxt;

	if (!weir_late_pending(late) || !OidIsValid(late->table))
		return;
	cxt = AllocSetContextCreate(CurrentMemoryContext, "weir late texts",
								ALLOCSET_DEFAULT_SIZES);
	table = relation_open(late->table, AccessShareLock);
	stream = table_open(plan->stream, AccessShareLock);
	check_column_rights(stream, RelationGetDescr(table), plan->owner);
	relation_close(table, NoLock);
	desc = RelationGetDescr(stream);
	io = columns_io(desc);
	values = palloc(desc->natts * sizeof(Datum));
	nulls = palloc(desc->natts * sizeof(bool));
	while (next_event(&reader, &header, &tuple))
	{
		WeirTexts texts = {0};
		HeapTupleData row = {0};
		MemoryContext old = MemoryContextSwitchTo(cxt);

		row.t_len = tuple->t_len + MINIMAL_TUPLE_OFFSET;
		row.t_data = (HeapTupleHeader) ((char *) tuple - MINIMAL_TUPLE_OFFSET);
		heap_deform_tuple(&row, desc, values, nulls);
		weir_texts_add_int(&texts, header.window_end);
		weir_texts_add_int(&texts, header.watermark);
		weir_texts_add_int(&texts, header.arrived_at);
		for (int i = 0; i < desc->natts; i++)
			if (!TupleDescAttr(desc, i)->attisdropped)
				weir_texts_add_value(&texts, &io[i], values[i], nulls[i]);
		callback(&texts, arg);
		MemoryContextSwitchTo(old);
		MemoryContextReset(cxt);
	}
	MemoryContextDelete(cxt);
	table_close(stream, AccessShareLock);
}

void
weir_late_in(Oid view, const WeirViewPlan *plan,
			 bool (*give)(WeirTexts *texts, void *arg), void *arg)
{
	WeirLate late = {.view = view, .table = weir_late_table(view)};
	WeirTexts texts = {0};
	WeirSecure secure;
	TupleDesc stream;
	Relation rel;
	Inserter ins;
	WeirTypeIO *io;

	if (!OidIsValid(late.table))
		return;
	weir_secure_enter(&secure, plan->owner, plan->settings);
	rel = open_table(&late, plan, &stream);
	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "unexpected result of SPI_connect");
	start_insert(&ins, view, rel, stream, plan->window.is_timestamptz);
	io = columns_io(stream);
	while (give(&texts, arg))
	{
		LateHeader header = {0};
		Datum *values = palloc0(stream->natts * sizeof(Datum));
		bool *nulls = palloc(stream->natts * sizeof(bool));

		header.window_end =
			weir_texts_next_int(&texts, PG_INT64_MIN, PG_INT64_MAX);
		header.watermark =
			weir_texts_next_int(&texts, PG_INT64_MIN, PG_INT64_MAX);
		header.arrived_at =
			weir_texts_next_int(&texts, PG_INT64_MIN, PG_INT64_MAX);
		for (int i = 0; i < stream->natts; i++)
		{
			Form_pg_attribute att = TupleDescAttr(stream, i);

			nulls[i] = true;
			if (!att->attisdropped)
				values[i] = weir_texts_next_value(&texts, &io[i],
												  att->atttypmod, &nulls[i]);
		}
		weir_texts_end(&texts);
		put_row(&ins, &header, weir_form_minimal_tuple(stream, values, nulls));
	}
	flush_insert(&ins);
	if (SPI_finish() != SPI_OK_FINISH)
		elog(ERROR, "unexpected result of SPI_finish");
	relation_close(rel, NoLock);
	weir_secure_leave(&secure);
}

/*
 * The first checkpoint of a view that starts from nothing also removes what the
 * table holds of it: it was stopped, or restored from a dump with its table.
 */
void
weir_late_write(WeirLate *late, const WeirViewPlan *plan,
				const WeirPositionRow *row)
{
	bool first = row->answering && row->checkpoint_seq == 0;

	if (!OidIsValid(late->table) || (late->published == 0 && !first))
		return;
	weir_debug_point("late-write");
	if (row->answering)
		write_rows(late, plan, first, PG_INT64_MIN, -1);
	else
		keep_pending(late, row->generation);
}

void
weir_late_swap(WeirLate *late, const WeirViewPlan *plan, int64 generation,
			   int64 kept_through)
{
	if (OidIsValid(late->table))
		write_rows(late, plan, true, kept_through, generation);
}


/* ---------- statements ---------- */

/* OIDs of relations at the other end of dependencies view -> table. */
static List *
find_dependencies(Oid relid, bool of_view)
{
	Relation rel = table_open(DependRelationId, AccessShareLock);
	List *result = NIL;
	ScanKeyData keys[2];
	SysScanDesc scan;
	HeapTuple tuple;

	ScanKeyInit(
		&keys[0], of_view ? Anum_pg_depend_classid : Anum_pg_depend_refclassid,
		BTEqualStrategyNumber, F_OIDEQ, ObjectIdGetDatum(RelationRelationId));
	ScanKeyInit(&keys[1],
				of_view ? Anum_pg_depend_objid : Anum_pg_depend_refobjid,
				BTEqualStrategyNumber, F_OIDEQ, ObjectIdGetDatum(relid));
	scan = systable_beginscan(
		rel, of_view ? DependDependerIndexId : DependReferenceIndexId, true,
		NULL, 2, keys);
	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		Form_pg_depend form = (Form_pg_depend) GETSTRUCT(tuple);

		if (form->deptype != DEPENDENCY_NORMAL ||
			form->classid != RelationRelationId ||
			form->refclassid != RelationRelationId || form->objsubid != 0 ||
			form->refobjsubid != 0)
			continue;
		if (of_view)
			result = list_append_unique_oid(result, form->refobjid);
		else if (weir_catalog_is_continuous_oid(form->objid))
			result = list_append_unique_oid(result, form->objid);
	}
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	return result;
}

/*
 * What its query reads the view's rule depends on, so that the view itself
 * depends on no other relation.
 */
Oid
weir_late_table(Oid view)
{
	List *tables = find_dependencies(view, true);

	return tables == NIL ? InvalidOid : linitial_oid(tables);
}

List *
weir_late_views(Oid table)
{
	return find_dependencies(table, false);
}

char *
weir_late_option(Oid view, Oid table)
{
	Oid schema = get_rel_namespace(table);

	return quote_qualified_identifier(
		schema == get_rel_namespace(view) ? NULL : get_namespace_name(schema),
		get_rel_name(table));
}

static void
forget_dependency(Oid view)
{
	Oid table = weir_late_table(view);

	if (OidIsValid(table))
		(void) deleteDependencyRecordsForSpecific(RelationRelationId, view,
												  DEPENDENCY_NORMAL,
												  RelationRelationId, table);
}

static void
remember_dependency(Oid view, Oid table)
{
	ObjectAddress from;
	ObjectAddress to;

	ObjectAddressSet(from, RelationRelationId, view);
	ObjectAddressSet(to, RelationRelationId, table);
	recordDependencyOn(&from, &to, DEPENDENCY_NORMAL);
	CommandCounterIncrement();
}

/* The option's value as a name; what is not qualified is in the view's schema. */
static RangeVar *
parse_name(Oid view, const char *name)
{
	RangeVar *rv = makeRangeVarFromNameList(weir_parse_name(name));

	if (rv->catalogname != NULL)
		ereport(
			ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("invalid value for option \"late_table\": \"%s\"", name),
			 errhint("Name a table, or schema and table.")));
	if (rv->schemaname == NULL)
		rv->schemaname = get_namespace_name(get_rel_namespace(view));
	return rv;
}

static Oid
create_table(RangeVar *rv, const WeirViewPlan *plan, Relation stream)
{
	TupleDesc desc = RelationGetDescr(stream);
	CreateStmt *stmt = makeNode(CreateStmt);
	ObjectAddress address;

	check_column_rights(stream, NULL, plan->owner);
	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute att = TupleDescAttr(desc, i);

		if (!is_stored(att))
			continue;
		if (is_late_column(NameStr(att->attname)))
			ereport(
				ERROR,
				(errcode(ERRCODE_DUPLICATE_COLUMN),
				 errmsg("column \"%s\" of stream \"%s\" has the name of a "
						"column of late tables",
						NameStr(att->attname), RelationGetRelationName(stream)),
				 errhint("Rename the column, or create the late table "
						 "yourself, without it.")));
		stmt->tableElts = lappend(
			stmt->tableElts, makeColumnDef(NameStr(att->attname), att->atttypid,
										   att->atttypmod, att->attcollation));
	}
	for (int i = 0; i < N_LATE_COLUMNS; i++)
		stmt->tableElts = lappend(
			stmt->tableElts,
			makeColumnDef(late_columns[i],
						  late_column_type(i, plan->window.is_timestamptz), -1,
						  InvalidOid));
	stmt->relation = rv;
	stmt->oncommit = ONCOMMIT_NOOP;
	stmt->accessMethod = pstrdup("heap");
	address = DefineRelation(stmt, RELKIND_RELATION, plan->owner, NULL, NULL);
	CommandCounterIncrement();
	NewRelationCreateToastTable(address.objectId, (Datum) 0);
	CommandCounterIncrement();
	return address.objectId;
}

/* A table that is there already: is it one of the owner's that fits? */
static void
check_table(Oid table, const WeirViewPlan *plan, Relation stream)
{
	Relation rel = relation_open(table, NoLock);
	const char *fault =
		find_fault(rel, RelationGetDescr(stream), plan->window.is_timestamptz);

	if (fault != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_DUPLICATE_TABLE),
				 errmsg("relation \"%s\" exists and cannot be a late table",
						RelationGetRelationName(rel)),
				 errdetail("It %s.", fault),
				 errhint("Give the option \"late_table\" another name: the "
						 "table is then created.")));
	if (!object_ownercheck(RelationRelationId, table, plan->owner))
		aclcheck_error(ACLCHECK_NOT_OWNER, OBJECT_TABLE,
					   RelationGetRelationName(rel));
	check_column_rights(stream, RelationGetDescr(rel), plan->owner);
	relation_close(rel, NoLock);
}

void
weir_late_attach(Oid view, const WeirViewPlan *plan, const char *name)
{
	RangeVar *rv;
	Relation stream;
	WeirSecure secure;
	Oid table;

	forget_dependency(view);
	if (name == NULL)
		return;
	rv = parse_name(view, name);
	weir_secure_enter(&secure, plan->owner, NULL);
	stream = table_open(plan->stream, AccessShareLock);
	table = RangeVarGetRelid(rv, AccessShareLock, true);
	if (OidIsValid(table))
		check_table(table, plan, stream);
	else
		table = create_table(rv, plan, stream);
	table_close(stream, NoLock);
	weir_secure_leave(&secure);
	remember_dependency(view, table);
}

void
weir_late_reattach(Oid view, Oid owner, const char *name)
{
	Oid table;

	if (name == NULL)
		return;
	table = RangeVarGetRelid(parse_name(view, name), AccessShareLock, true);
	if (!OidIsValid(table))
		return;
	if (OidIsValid(owner) &&
		!object_ownercheck(RelationRelationId, table, owner))
		aclcheck_error(ACLCHECK_NOT_OWNER,
					   get_relkind_objtype(get_rel_relkind(table)),
					   get_rel_name(table));
	remember_dependency(view, table);
}

static Oid
owner_of(Oid relid)
{
	HeapTuple tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(relid));
	Oid owner;

	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for relation %u", relid);
	owner = ((Form_pg_class) GETSTRUCT(tuple))->relowner;
	ReleaseSysCache(tuple);
	return owner;
}

void
weir_late_change_owner(Oid view, Oid old_owner, bool check)
{
	Oid table = weir_late_table(view);
	Oid owner = owner_of(view);
	const AclMode mode = ACL_INSERT | ACL_SELECT | ACL_DELETE;

	if (!OidIsValid(table) || owner_of(table) == owner)
		return;
	if (owner_of(table) == old_owner &&
		list_length(weir_late_views(table)) == 1)
	{
		ATExecChangeOwner(table, owner, false, AccessExclusiveLock);
		CommandCounterIncrement();
	}
	else if (check && pg_class_aclmask(table, owner, mode, ACLMASK_ALL) != mode)
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied for table %s", get_rel_name(table)),
				 errdetail("It is the late table of continuous view \"%s\".",
						   get_rel_name(view)),
				 errhint("Grant SELECT, INSERT and DELETE on it to the new "
						 "owner first.")));
}

/* In one late table, if it has the column and the user owns it. */
static void
rename_column(Oid table, const char *from, const char *to)
{
	RenameStmt *stmt;

	LockRelationOid(table, AccessExclusiveLock);
	if (get_attnum(table, from) == InvalidAttrNumber ||
		get_attnum(table, to) != InvalidAttrNumber)
		return;
	if (!object_ownercheck(RelationRelationId, table, GetUserId()))
	{
		ereport(
			WARNING,
			(errmsg("column \"%s\" of late table \"%s\" keeps its name", from,
					get_rel_name(table)),
			 errdetail("The table is another user's."),
			 errhint("The column is left empty from now on, until its owner "
					 "renames it to \"%s\".",
					 to)));
		return;
	}
	stmt = makeNode(RenameStmt);
	stmt->renameType = OBJECT_COLUMN;
	stmt->relationType = OBJECT_TABLE;
	stmt->relation = makeRangeVar(get_namespace_name(get_rel_namespace(table)),
								  get_rel_name(table), -1);
	stmt->subname = pstrdup(from);
	stmt->newname = pstrdup(to);
	(void) renameatt(stmt);
	CommandCounterIncrement();
}

void
weir_late_rename_column(Oid stream, const char *from, const char *to)
{
	List *tables = NIL;
	ListCell *lc;

	if (is_late_column(from) || is_late_column(to))
		return;
	foreach(lc, weir_catalog_views_of_stream(stream))
	{
		Oid table = weir_late_table(lfirst_oid(lc));

		if (OidIsValid(table))
			tables = list_append_unique_oid(tables, table);
	}
	list_sort(tables, list_oid_cmp);
	foreach(lc, tables)
		rename_column(lfirst_oid(lc), from, to);
}
