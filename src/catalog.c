/*-------------------------------------------------------------------------
 *
 * catalog.c
 *	  Rows of the extension's tables, options of streams and views, <-> C
 *	  structs.
 *
 * The tables are ordinary heap tables in schema weir, read and written here
 * below SQL (systable scans, CatalogTuple*): a worker or a user's statement
 * needs no rights on them and no search_path matters.  The columns are those
 * of the install script, in its order; the enums below must follow it.
 *
 * Caches, all process-local:
 *	- extension: schema, access methods and their handlers; dropped by any
 *	  change of pg_am or pg_namespace;
 *	- members: OIDs of our tables, indexes and the sequence; an element is
 *	  dropped by a relcache message about it;
 *	- stream_cache: parsed options per stream; an element is marked stale by a
 *	  relcache message (an option change is a pg_class update).
 * What is looked up while a message arrives is used once and not kept.
 *
 * Concurrency: a view's wish row is changed under ShareUpdateExclusiveLock or
 * stronger on the view, its position row by whoever read the version it
 * replaces (weir_catalog_position_put).  Deleting (DROP, REFRESH) happens
 * under AccessExclusiveLock on the view, but does not rely on it.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/detoast.h"
#include "access/genam.h"
#include "access/generic_xlog.h"
#include "access/heapam.h"
#include "access/htup_details.h"
#include "access/reloptions.h"
#include "access/stratnum.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "catalog/indexing.h"
#include "catalog/namespace.h"
#include "catalog/pg_am.h"
#include "catalog/pg_class.h"
#include "catalog/pg_db_role_setting.h"
#include "catalog/pg_extension.h"
#include "catalog/pg_type.h"
#include "commands/defrem.h"
#include "commands/sequence.h"
#include "commands/trigger.h"
#include "common/int.h"
#include "executor/tuptable.h"
#include "miscadmin.h"
#include "port/pg_crc32c.h"
#include "replication/logicalworker.h"
#include "storage/bufmgr.h"
#include "storage/bufpage.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/fmgrprotos.h"
#include "utils/guc.h"
#include "utils/hsearch.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"

#include "catalog.h"
#include "compat.h"
#include "debug.h"

#define WEIR_SCHEMA "weir"

/* Columns of weir.view_wish */
enum
{
	Anum_wish_view = 1,
	Anum_wish_stream,
	Anum_wish_wanted,
	Anum_wish_generation,
	Anum_wish_resumes,
	Anum_wish_since,
	Anum_wish_kept_through,
	Natts_wish = Anum_wish_kept_through
};

/* Columns of weir.view_position */
enum
{
	Anum_position_view = 1,
	Anum_position_generation,
	Anum_position_answering,
	Anum_position_position,
	Anum_position_watermark,
	Anum_position_closed_before,
	Anum_position_allowed_lateness,
	Anum_position_checkpoint_seq,
	Anum_position_events_in,
	Anum_position_late,
	Anum_position_late_partial,
	Anum_position_final_rows,
	Anum_position_built,
	Anum_position_failed_resumes,
	Anum_position_format,
	Anum_position_server_major,
	Anum_position_checkpoint_at,
	Anum_position_checkpoint_us,
	Anum_position_checkpoint_bytes,
	Anum_position_checksum,
	Anum_position_sqlstate,
	Anum_position_error,
	Anum_position_layout,
	Natts_position = Anum_position_layout
};

/* The first columns of weir.view_state, weir.view_pending, weir.view_import */
enum
{
	Anum_blob_view = 1,
	Anum_blob_generation
};

/* Columns of weir.error_log */
enum
{
	Anum_error_id = 1,
	Anum_error_view,
	Anum_error_generation,
	Anum_error_stream,
	Anum_error_event,
	Anum_error_sqlstate,
	Anum_error_message,
	Anum_error_at,
	Natts_error = Anum_error_at
};

/* The extension in this database; all InvalidOid: it is not installed. */
static struct
{
	bool valid;
	Oid schema;
	Oid stream_am;
	Oid stream_handler;
	Oid continuous_am;
	Oid continuous_handler;
} extension;

/* Counts invalidations, to see whether one came during a lookup. */
static uint64 extension_changes = 0;
static uint64 stream_changes = 0;

static struct
{
	const char *name;
	Oid oid;
} members[] = {
	{"view_wish", InvalidOid},
	{"view_wish_pkey", InvalidOid},
	{"view_wish_stream_idx", InvalidOid},
	{"view_position", InvalidOid},
	{"view_position_pkey", InvalidOid},
	{"view_state", InvalidOid},
	{"view_state_idx", InvalidOid},
	{"view_pending", InvalidOid},
	{"stream_trim", InvalidOid},
	{"stream_trim_pkey", InvalidOid},
	{"log_run", InvalidOid},
	{"log_run_pkey", InvalidOid},
	{"stream_end", InvalidOid},
	{"stream_end_pkey", InvalidOid},
	{"view_pending_idx", InvalidOid},
	{"late_pending", InvalidOid},
	{"late_pending_idx", InvalidOid},
	{"view_import", InvalidOid},
	{"view_import_idx", InvalidOid},
	{"view_dump", InvalidOid},
	{"error_log", InvalidOid},
	{"error_log_view_idx", InvalidOid},
	{"error_log_id_seq", InvalidOid},
};

typedef struct StreamCacheEntry
{
	Oid relid; /* hash key */
	bool valid;
	WeirStreamOptions options;
} StreamCacheEntry;

static HTAB *stream_cache = NULL;
static StreamCacheEntry *stream_last = NULL; /* found last; may be stale */


/* ---- caches ---- */

static void
invalidate_extension(Datum arg, int cacheid, uint32 hashvalue)
{
	extension.valid = false;
	extension_changes++;
}

static void
invalidate_relation(Datum arg, Oid relid)
{
	stream_changes++;

	for (int i = 0; i < lengthof(members); i++)
	{
		if (!OidIsValid(relid) || members[i].oid == relid)
			members[i].oid = InvalidOid;
	}

	if (stream_cache == NULL)
		return;
	if (OidIsValid(relid))
	{
		StreamCacheEntry *entry;

		entry = hash_search(stream_cache, &relid, HASH_FIND, NULL);
		if (entry != NULL)
			entry->valid = false;
	}
	else
	{
		HASH_SEQ_STATUS status;
		StreamCacheEntry *entry;

		hash_seq_init(&status, stream_cache);
		while ((entry = hash_seq_search(&status)) != NULL)
			entry->valid = false;
	}
}

void
weir_catalog_init(void)
{
	CacheRegisterSyscacheCallback(AMNAME, invalidate_extension, (Datum) 0);
	CacheRegisterSyscacheCallback(NAMESPACENAME, invalidate_extension,
								  (Datum) 0);
	CacheRegisterRelcacheCallback(invalidate_relation, (Datum) 0);
}

/*
 * The access method of this name if its handler is in our schema; *handler is
 * set.  Access methods are made by superusers only, so nobody can plant one.
 */
static Oid
lookup_am(const char *name, Oid schema, Oid *handler)
{
	HeapTuple tuple = SearchSysCache1(AMNAME, CStringGetDatum(name));
	Oid am = InvalidOid;

	*handler = InvalidOid;
	if (!HeapTupleIsValid(tuple))
		return InvalidOid;
	am = ((Form_pg_am) GETSTRUCT(tuple))->oid;
	*handler = ((Form_pg_am) GETSTRUCT(tuple))->amhandler;
	ReleaseSysCache(tuple);

	if (get_func_namespace(*handler) != schema)
	{
		*handler = InvalidOid;
		return InvalidOid;
	}
	return am;
}

/*
 * Make "extension" true.  Outside a transaction nothing can be looked up and
 * what was known last is used: callbacks at the end of a transaction may ask.
 */
static void
know_extension(void)
{
	uint64 changes = extension_changes;
	Oid schema;
	Oid stream_am = InvalidOid;
	Oid stream_handler = InvalidOid;
	Oid continuous_am = InvalidOid;
	Oid continuous_handler = InvalidOid;

	if (likely(extension.valid) || !IsTransactionState())
		return;

	schema = get_namespace_oid(WEIR_SCHEMA, true);
	if (OidIsValid(schema))
	{
		stream_am = lookup_am("stream", schema, &stream_handler);
		continuous_am = lookup_am("continuous", schema, &continuous_handler);
		if (!OidIsValid(stream_am))
			schema = InvalidOid; /* somebody's schema of that name */
	}

	extension.schema = schema;
	extension.stream_am = stream_am;
	extension.stream_handler = stream_handler;
	extension.continuous_am = continuous_am;
	extension.continuous_handler = continuous_handler;
	extension.valid = (changes == extension_changes);
}

Oid
weir_catalog_schema(void)
{
	know_extension();
	return extension.schema;
}

bool
weir_catalog_has_extension(void)
{
	Relation rel = table_open(ExtensionRelationId, AccessShareLock);
	ScanKeyData key;
	SysScanDesc scan;
	bool result;

	ScanKeyInit(&key, Anum_pg_extension_extname, BTEqualStrategyNumber,
				F_NAMEEQ, CStringGetDatum("pg_weir"));
	scan = systable_beginscan(rel, ExtensionNameIndexId, true, NULL, 1, &key);
	result = HeapTupleIsValid(systable_getnext(scan));
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	return result;
}

Oid
weir_catalog_stream_am(void)
{
	know_extension();
	return extension.stream_am;
}

Oid
weir_catalog_continuous_am(void)
{
	know_extension();
	return extension.continuous_am;
}

bool
weir_catalog_is_stream(Relation rel)
{
	know_extension();
	return OidIsValid(extension.stream_handler) &&
		   rel->rd_amhandler == extension.stream_handler;
}

bool
weir_catalog_is_continuous(Relation rel)
{
	know_extension();
	return OidIsValid(extension.continuous_handler) &&
		   rel->rd_amhandler == extension.continuous_handler &&
		   rel->rd_rel->relkind == RELKIND_MATVIEW;
}

/* Has this relation this access method and, if given, this relkind? */
static bool
relation_has_am(Oid relid, Oid am, char relkind)
{
	HeapTuple tuple;
	Form_pg_class form;
	bool result;

	if (!OidIsValid(am))
		return false;
	tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(relid));
	if (!HeapTupleIsValid(tuple))
		return false;
	form = (Form_pg_class) GETSTRUCT(tuple);
	result = form->relam == am && form->relkind == relkind;
	ReleaseSysCache(tuple);
	return result;
}

bool
weir_catalog_is_stream_oid(Oid relid)
{
	return relation_has_am(relid, weir_catalog_stream_am(), RELKIND_RELATION);
}

bool
weir_catalog_is_continuous_oid(Oid relid)
{
	return relation_has_am(relid, weir_catalog_continuous_am(),
						   RELKIND_MATVIEW);
}

/* One of members[]; InvalidOid if it does not exist (any more). */
static Oid
find_member(const char *name)
{
	for (int i = 0; i < lengthof(members); i++)
	{
		Oid oid;

		if (strcmp(members[i].name, name) != 0)
			continue;
		if (OidIsValid(members[i].oid))
			return members[i].oid;
		if (!OidIsValid(weir_catalog_schema()))
			return InvalidOid;
		oid = get_relname_relid(name, weir_catalog_schema());

		/*
		 * An invalidation during the lookup has cleared the element before
		 * the lookup's own (newer) answer is stored.
		 */
		members[i].oid = oid;
		return oid;
	}
	elog(ERROR, "unexpected member \"%s\" of extension pg_weir", name);
	return InvalidOid; /* keep compiler quiet */
}

Oid
weir_catalog_table(const char *name)
{
	Oid oid = find_member(name);

	if (!OidIsValid(oid))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_TABLE),
				 errmsg("relation \"%s.%s\" does not exist", WEIR_SCHEMA, name),
				 errhint("Install the extension with CREATE EXTENSION "
						 "pg_weir.")));
	return oid;
}

Relation
weir_catalog_open(const char *name, int natts, LOCKMODE lockmode)
{
	Relation rel = table_open(weir_catalog_table(name), lockmode);
	int found = RelationGetNumberOfAttributes(rel);

	/* now that we have a lock it stays so */
	if (found != natts)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("the SQL objects of pg_weir are of another version "
						"than its library"),
				 errdetail("Table \"%s.%s\" has %d columns, the library knows "
						   "%d.",
						   WEIR_SCHEMA, name, found, natts),
				 found < natts
					 ? errhint("Run ALTER EXTENSION pg_weir UPDATE.")
					 : errhint("Restart the server, so that it loads the "
							   "library that was installed with them.")));
	return rel;
}


/* ---- options: parsing ---- */

static void
option_error_context(void *arg)
{
	errcontext("option \"%s\"", (const char *) arg);
}

/*
 * Is there a number in this interval text that names no unit?  Zero needs
 * none.  Clock notation (1:30) and ISO 8601 (PT5S) have theirs built in.
 */
static bool
lacks_unit(const char *text)
{
	const char *p = text;

	while (*p != '\0')
	{
		bool zero = true;

		if ((*p == 'P' || *p == 'p') && p == text)
			return false;
		if (!isdigit((unsigned char) *p) && *p != '.')
		{
			p++;
			continue;
		}
		for (; isdigit((unsigned char) *p) || *p == '.'; p++)
			zero = zero && (*p == '0' || *p == '.');
		if (*p == ':')
		{
			while (isdigit((unsigned char) *p) || *p == ':' || *p == '.')
				p++;
			continue;
		}
		while (isspace((unsigned char) *p))
			p++;
		if (!isalpha((unsigned char) *p) && !zero)
			return true;
	}
	return false;
}

int64
weir_catalog_parse_duration(const char *what, const char *text, bool allow_off,
							int64 off_value, bool allow_infinity)
{
	ErrorContextCallback context;
	Interval *interval;
	int64 days;
	int64 result;

	while (isspace((unsigned char) *text))
		text++;
	if (allow_off && pg_strcasecmp(text, "off") == 0)
		return off_value;
	if (allow_infinity && pg_strcasecmp(text, "infinity") == 0)
		return PG_INT64_MAX;

	/* since 17 interval_in takes it */
	if (pg_strcasecmp(text + strspn(text, "+-"), "infinity") == 0)
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("option \"%s\" cannot be infinite", what),
						errdetail("The value is \"%s\".", text),
						errhint("Write for example '7 days' or '5 seconds'.")));

	if (lacks_unit(text))
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("option \"%s\" needs a unit", what),
						errdetail("The value is \"%s\".", text),
						errhint("Write for example '7 days' or '5 seconds'.")));

	context.callback = option_error_context;
	context.arg = unconstify(char *, what);
	context.previous = error_context_stack;
	error_context_stack = &context;
	interval = DatumGetIntervalP(
		DirectFunctionCall3(interval_in, CStringGetDatum(text),
							ObjectIdGetDatum(InvalidOid), Int32GetDatum(-1)));
	error_context_stack = context.previous;

	/* infinite intervals of newer servers have an extreme month, too */
	if (interval->month != 0)
		ereport(
			ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("option \"%s\" must be a duration of fixed length", what),
			 errdetail("The value is \"%s\"; months and years differ in "
					   "length.",
					   text),
			 errhint("Use days.")));
	if (pg_mul_s64_overflow(interval->day, USECS_PER_DAY, &days) ||
		pg_add_s64_overflow(days, interval->time, &result) ||
		result == PG_INT64_MAX)
		ereport(ERROR, (errcode(ERRCODE_DATETIME_VALUE_OUT_OF_RANGE),
						errmsg("option \"%s\" is out of range", what),
						errdetail("The value is \"%s\".", text)));
	if (result < 0)
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("option \"%s\" must not be negative", what),
						errdetail("The value is \"%s\".", text),
						errhint("Write for example '7 days' or '5 seconds'.")));
	return result;
}

/* Bytes, with a unit or without one. */
static int64
parse_bytes(const char *what, const char *text)
{
	ErrorContextCallback context;
	int64 result;

	while (isspace((unsigned char) *text))
		text++;
	if (pg_strcasecmp(text, "off") == 0 || pg_strcasecmp(text, "infinity") == 0)
		return PG_INT64_MAX;

	context.callback = option_error_context;
	context.arg = unconstify(char *, what);
	context.previous = error_context_stack;
	error_context_stack = &context;
	result = DatumGetInt64(DirectFunctionCall1(
		pg_size_bytes, PointerGetDatum(cstring_to_text(text))));
	error_context_stack = context.previous;

	if (result < 0)
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("option \"%s\" must not be negative", what),
						errdetail("The value is \"%s\".", text),
						errhint("Write for example '10 GB'.")));
	return result;
}

/* pg_class.reloptions as DefElems; NIL if there are none. */
static List *
stored_options(Oid relid)
{
	HeapTuple tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(relid));
	Datum datum;
	bool isnull;
	List *result = NIL;

	if (!HeapTupleIsValid(tuple))
		ereport(ERROR, (errcode(ERRCODE_UNDEFINED_TABLE),
						errmsg("relation with OID %u does not exist", relid)));
	datum = SysCacheGetAttr(RELOID, tuple, Anum_pg_class_reloptions, &isnull);
	if (!isnull)
		result = untransformRelOptions(datum);
	ReleaseSysCache(tuple);
	return result;
}

static const char *const stream_option_names[] = {
	"event_time", "watermark_delay", "idle_timeout",
	"max_future", "retention",		 "retention_size",
};

static const char *const view_option_names[] = {
	"allowed_lateness", "late_table", "emit",
	"retention",		"on_error",	  "settings",
};

bool
weir_catalog_is_stream_option(const char *name)
{
	for (int i = 0; i < lengthof(stream_option_names); i++)
		if (strcmp(stream_option_names[i], name) == 0)
			return true;
	return false;
}

bool
weir_catalog_is_view_option(const char *name)
{
	for (int i = 0; i < lengthof(view_option_names); i++)
		if (strcmp(view_option_names[i], name) == 0)
			return true;
	return false;
}

/* Find the event-time column, or raise saying why it cannot be one. */
static void
set_event_time(WeirStreamOptions *options, Relation rel, const char *column)
{
	TupleDesc desc = RelationGetDescr(rel);
	const char *stream = RelationGetRelationName(rel);

	/* the transient copy of a table that ALTER TABLE rewrites */
	if (OidIsValid(rel->rd_rel->relrewrite))
		stream = get_rel_name(rel->rd_rel->relrewrite);

	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute att = TupleDescAttr(desc, i);

		if (att->attisdropped || strcmp(NameStr(att->attname), column) != 0)
			continue;
		if (att->atttypid != TIMESTAMPTZOID && att->atttypid != TIMESTAMPOID)
			ereport(
				ERROR,
				(errcode(ERRCODE_DATATYPE_MISMATCH),
				 errmsg("column \"%s\" of stream \"%s\" cannot be the event "
						"time",
						column, stream),
				 errdetail("Its type is %s.", format_type_be(att->atttypid)),
				 errhint("Use a column of type timestamp with time zone.")));
		if (att->attgenerated != '\0' &&
			att->attgenerated != ATTRIBUTE_GENERATED_STORED)
			ereport(
				ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("column \"%s\" of stream \"%s\" cannot be the event "
						"time",
						column, stream),
				 errdetail("It is a virtual generated column."),
				 errhint("Make it a stored one.")));
		options->event_attno = att->attnum;
		options->event_is_timestamptz = att->atttypid == TIMESTAMPTZOID;
		return;
	}
	ereport(ERROR, (errcode(ERRCODE_UNDEFINED_COLUMN),
					errmsg("column \"%s\" of stream \"%s\" does not exist",
						   column, stream),
					errdetail("Option \"event_time\" names it.")));
}

static void
parse_stream_options(Relation rel, WeirStreamOptions *options)
{
	ListCell *lc;

	options->event_attno = 0;
	options->event_is_timestamptz = false;
	options->watermark_delay = USECS_PER_MINUTE;
	options->idle_timeout = 0;
	options->max_future = USECS_PER_DAY;
	options->retention = PG_INT64_MAX;
	options->retention_size = PG_INT64_MAX;

	foreach(lc, stored_options(RelationGetRelid(rel)))
	{
		DefElem *def = lfirst_node(DefElem, lc);
		const char *name = def->defname;
		const char *value;

		if (!weir_catalog_is_stream_option(name))
			continue;
		value = defGetString(def);
		if (strcmp(name, "event_time") == 0)
			set_event_time(options, rel, value);
		else if (strcmp(name, "watermark_delay") == 0)
			options->watermark_delay =
				weir_catalog_parse_duration(name, value, false, 0, false);
		else if (strcmp(name, "idle_timeout") == 0)
			options->idle_timeout =
				weir_catalog_parse_duration(name, value, true, 0, false);
		else if (strcmp(name, "max_future") == 0)
			options->max_future = weir_catalog_parse_duration(
				name, value, true, PG_INT64_MAX, true);
		else if (strcmp(name, "retention") == 0)
			options->retention = weir_catalog_parse_duration(
				name, value, true, PG_INT64_MAX, true);
		else if (strcmp(name, "retention_size") == 0)
			options->retention_size = parse_bytes(name, value);
	}
}

/* Streams that are gone leave nothing but such behind. */
static void
forget_stale_streams(void)
{
	HASH_SEQ_STATUS status;
	StreamCacheEntry *entry;

	stream_last = NULL;
	hash_seq_init(&status, stream_cache);
	while ((entry = hash_seq_search(&status)) != NULL)
		if (!entry->valid)
			(void) hash_search(stream_cache, &entry->relid, HASH_REMOVE, NULL);
}

const WeirStreamOptions *
weir_catalog_stream_options(Relation rel)
{
	Oid relid = RelationGetRelid(rel);
	StreamCacheEntry *entry = stream_last;
	WeirStreamOptions options;
	uint64 changes;
	bool found;

	if (likely(entry != NULL && entry->relid == relid && entry->valid))
		return &entry->options;

	if (stream_cache == NULL)
	{
		HASHCTL ctl;

		ctl.keysize = sizeof(Oid);
		ctl.entrysize = sizeof(StreamCacheEntry);
		ctl.hcxt = CacheMemoryContext;
		stream_cache = hash_create("weir stream options", 16, &ctl,
								   HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	}

	entry = hash_search(stream_cache, &relid, HASH_FIND, NULL);
	if (entry == NULL || !entry->valid)
	{
		MemoryContext cxt;
		MemoryContext old;

		/* parsing leaves garbage, and the caller's context may live long */
		cxt = AllocSetContextCreate(CurrentMemoryContext, "weir options",
									ALLOCSET_SMALL_SIZES);
		old = MemoryContextSwitchTo(cxt);
		changes = stream_changes;
		parse_stream_options(rel, &options);
		MemoryContextSwitchTo(old);
		MemoryContextDelete(cxt);

		forget_stale_streams();
		entry = hash_search(stream_cache, &relid, HASH_ENTER, &found);
		entry->options = options;
		entry->valid = (changes == stream_changes);
	}
	stream_last = entry;
	return &entry->options;
}

WeirViewOptions *
weir_catalog_view_options(Oid view)
{
	WeirViewOptions *options = palloc0(sizeof(WeirViewOptions));
	ListCell *lc;

	options->emit = WEIR_EMIT_LIVE;
	options->on_error = WEIR_ON_ERROR_STOP;
	options->retention = PG_INT64_MAX;

	foreach(lc, stored_options(view))
	{
		DefElem *def = lfirst_node(DefElem, lc);
		const char *name = def->defname;
		const char *value;

		if (!weir_catalog_is_view_option(name))
			continue;
		value = defGetString(def);
		if (strcmp(name, "allowed_lateness") == 0)
			options->allowed_lateness =
				weir_catalog_parse_duration(name, value, false, 0, true);
		else if (strcmp(name, "retention") == 0)
			options->retention = weir_catalog_parse_duration(
				name, value, true, PG_INT64_MAX, true);
		else if (strcmp(name, "settings") == 0)
			options->settings = pstrdup(value);
		else if (strcmp(name, "late_table") == 0)
			options->late_table = pstrdup(value);
		else if (strcmp(name, "emit") == 0)
		{
			if (pg_strcasecmp(value, "live") == 0)
				options->emit = WEIR_EMIT_LIVE;
			else if (pg_strcasecmp(value, "final") == 0)
				options->emit = WEIR_EMIT_FINAL;
			else
				ereport(ERROR,
						(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						 errmsg("invalid value for option \"%s\": \"%s\"", name,
								value),
						 errhint("Use \"live\" or \"final\".")));
		}
		else if (strcmp(name, "on_error") == 0)
		{
			if (pg_strcasecmp(value, "stop") == 0)
				options->on_error = WEIR_ON_ERROR_STOP;
			else if (pg_strcasecmp(value, "skip") == 0)
				options->on_error = WEIR_ON_ERROR_SKIP;
			else
				ereport(ERROR,
						(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						 errmsg("invalid value for option \"%s\": \"%s\"", name,
								value),
						 errhint("Use \"stop\" or \"skip\".")));
		}
	}
	return options;
}


/* ---- rows: common ---- */

static void
key_oid(ScanKey key, AttrNumber attno, Oid value)
{
	ScanKeyInit(key, attno, BTEqualStrategyNumber, F_OIDEQ,
				ObjectIdGetDatum(value));
}

static void
key_int8(ScanKey key, AttrNumber attno, int64 value)
{
	ScanKeyInit(key, attno, BTEqualStrategyNumber, F_INT8EQ,
				Int64GetDatum(value));
}

/*
 * Deleting a row deletes what its pointers lead to.  One that is damaged may
 * name any relation, or none, and the row could not be deleted; so it is made
 * short data of as many bytes.  What it has led to stays.
 *
 * tuple is that in the buffer, which its scan has pinned.
 */
static void
drop_wrong_pointers(Relation rel, HeapTuple tuple)
{
	TupleDesc desc = RelationGetDescr(rel);
	Datum values[MaxTupleAttributeNumber];
	bool nulls[MaxTupleAttributeNumber];
	const char *end = (const char *) tuple->t_data + tuple->t_len;

	if (!HeapTupleHasExternal(tuple))
		return;
	heap_deform_tuple(tuple, desc, values, nulls);
	for (int i = 0; i < desc->natts; i++)
	{
		const char *p = DatumGetPointer(values[i]);
		struct varatt_external pointer;
		GenericXLogState *log;
		Buffer buffer;
		Page page;
		char *item;

		/* a damaged length before it may have led out of the tuple */
		if (nulls[i] || TupleDescAttr(desc, i)->attlen != -1 || p >= end ||
			end - p < TOAST_POINTER_SIZE || !VARATT_IS_EXTERNAL_ONDISK(p))
			continue;
		VARATT_EXTERNAL_GET_POINTER(pointer, p);
		if (pointer.va_toastrelid == rel->rd_rel->reltoastrelid)
			continue;

		buffer = ReadBuffer(rel, ItemPointerGetBlockNumber(&tuple->t_self));
		LockBuffer(buffer, BUFFER_LOCK_EXCLUSIVE);
		log = GenericXLogStart(rel);
		page = GenericXLogRegisterBuffer(log, buffer, 0);
		item = (char *) PageGetItem(
			page,
			PageGetItemId(page, ItemPointerGetOffsetNumber(&tuple->t_self)));
		item += p - (const char *) tuple->t_data;
		memset(item, 0, TOAST_POINTER_SIZE);
		SET_VARSIZE_SHORT(item, TOAST_POINTER_SIZE);
		GenericXLogFinish(log);
		UnlockReleaseBuffer(buffer);
	}
}

/*
 * Delete every row that matches, whoever else is changing them: a row that
 * was updated under us is looked for again.  A missing table (DROP EXTENSION
 * took it first) has no rows.
 */
static void
delete_rows(const char *table, const char *index, int nkeys, ScanKey keys)
{
	Oid table_oid = find_member(table);
	Oid index_oid = find_member(index);
	Relation rel;
	bool again = true;

	if (!OidIsValid(table_oid) || !OidIsValid(index_oid))
		return;
	rel = table_open(table_oid, RowExclusiveLock);
	while (again)
	{
		Snapshot snapshot = RegisterSnapshot(GetLatestSnapshot());
		SysScanDesc scan;
		HeapTuple tuple;

		again = false;
		scan = systable_beginscan(rel, index_oid, true, snapshot, nkeys, keys);
		while (HeapTupleIsValid(tuple = systable_getnext(scan)))
		{
			TM_FailureData failure;
			TM_Result result;

			CHECK_FOR_INTERRUPTS();
			drop_wrong_pointers(rel, tuple);
			result = table_tuple_delete(rel, &tuple->t_self,
										GetCurrentCommandId(true), snapshot,
										InvalidSnapshot, true, &failure, false);
			if (result == TM_Updated)
				again = true;
			else if (result != TM_Ok && result != TM_Deleted &&
					 result != TM_SelfModified)
				elog(ERROR, "unexpected result %d of deleting from \"%s\"",
					 (int) result, table);
		}
		systable_endscan(scan);
		UnregisterSnapshot(snapshot);
	}
	table_close(rel, NoLock);
	CommandCounterIncrement();
}


/* ---- wishes ---- */

static void
wish_from_tuple(WeirWish *wish, HeapTuple tuple, TupleDesc desc)
{
	Datum values[Natts_wish];
	bool nulls[Natts_wish];

	heap_deform_tuple(tuple, desc, values, nulls);
	wish->view = DatumGetObjectId(values[Anum_wish_view - 1]);
	wish->stream = DatumGetObjectId(values[Anum_wish_stream - 1]);
	wish->wanted = DatumGetChar(values[Anum_wish_wanted - 1]);
	wish->generation = DatumGetInt64(values[Anum_wish_generation - 1]);
	wish->resumes = DatumGetInt64(values[Anum_wish_resumes - 1]);
	wish->since = (WeirNumber) DatumGetInt64(values[Anum_wish_since - 1]);
	wish->kept_through = DatumGetInt64(values[Anum_wish_kept_through - 1]);
}

bool
weir_catalog_wish_get(Oid view, WeirWish *wish)
{
	Relation rel;
	SysScanDesc scan;
	ScanKeyData key;
	HeapTuple tuple;
	bool found;

	rel = weir_catalog_open("view_wish", Natts_wish, AccessShareLock);
	key_oid(&key, Anum_wish_view, view);
	scan = systable_beginscan(rel, weir_catalog_table("view_wish_pkey"), true,
							  NULL, 1, &key);
	tuple = systable_getnext(scan);
	found = HeapTupleIsValid(tuple);
	if (found)
		wish_from_tuple(wish, tuple, RelationGetDescr(rel));
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	return found;
}

List *
weir_catalog_wish_all(void)
{
	return weir_catalog_wish_all_at(NULL);
}

List *
weir_catalog_wish_all_at(Snapshot snapshot)
{
	Relation rel;
	SysScanDesc scan;
	HeapTuple tuple;
	List *result = NIL;

	rel = weir_catalog_open("view_wish", Natts_wish, AccessShareLock);
	scan = systable_beginscan(rel, InvalidOid, false, snapshot, 0, NULL);
	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		WeirWish *wish = palloc(sizeof(WeirWish));

		wish_from_tuple(wish, tuple, RelationGetDescr(rel));
		result = lappend(result, wish);
	}
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	return result;
}

List *
weir_catalog_views_of_stream(Oid stream)
{
	Relation rel;
	SysScanDesc scan;
	ScanKeyData key;
	HeapTuple tuple;
	List *result = NIL;

	rel = weir_catalog_open("view_wish", Natts_wish, AccessShareLock);
	key_oid(&key, Anum_wish_stream, stream);
	scan = systable_beginscan(rel, weir_catalog_table("view_wish_stream_idx"),
							  true, NULL, 1, &key);
	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		WeirWish wish;

		wish_from_tuple(&wish, tuple, RelationGetDescr(rel));
		result = lappend_oid(result, wish.view);
	}
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	return result;
}

void
weir_catalog_wish_put(const WeirWish *wish)
{
	Relation rel;
	SysScanDesc scan;
	ScanKeyData key;
	HeapTuple old;
	HeapTuple tuple;
	Datum values[Natts_wish];
	bool nulls[Natts_wish] = {false};

	values[Anum_wish_view - 1] = ObjectIdGetDatum(wish->view);
	values[Anum_wish_stream - 1] = ObjectIdGetDatum(wish->stream);
	values[Anum_wish_wanted - 1] = CharGetDatum(wish->wanted);
	values[Anum_wish_generation - 1] = Int64GetDatum(wish->generation);
	values[Anum_wish_resumes - 1] = Int64GetDatum(wish->resumes);
	values[Anum_wish_since - 1] = Int64GetDatum((int64) wish->since);
	values[Anum_wish_kept_through - 1] = Int64GetDatum(wish->kept_through);

	rel = weir_catalog_open("view_wish", Natts_wish, RowExclusiveLock);
	tuple = heap_form_tuple(RelationGetDescr(rel), values, nulls);
	key_oid(&key, Anum_wish_view, wish->view);
	scan = systable_beginscan(rel, weir_catalog_table("view_wish_pkey"), true,
							  NULL, 1, &key);
	old = systable_getnext(scan);
	if (HeapTupleIsValid(old))
		CatalogTupleUpdate(rel, &old->t_self, tuple);
	else
		CatalogTupleInsert(rel, tuple);
	systable_endscan(scan);
	heap_freetuple(tuple);
	table_close(rel, NoLock);
	CommandCounterIncrement();
}

void
weir_catalog_wish_delete(Oid view)
{
	ScanKeyData key;

	key_oid(&key, Anum_wish_view, view);
	delete_rows("view_wish", "view_wish_pkey", 1, &key);
}


/* ---- what streams have lost ---- */

enum
{
	Anum_trim_stream = 1,
	Anum_trim_up_to,
	Anum_trim_max_time,
	Anum_trim_checksum,
	Natts_trim = Anum_trim_checksum
};

/* With a number that is too low, a view could be rebuilt without what has gone. */
static int32
trim_checksum(Oid stream, WeirNumber up_to, int64 max_time)
{
	pg_crc32c crc;

	INIT_CRC32C(crc);
	COMP_CRC32C(crc, &stream, sizeof(stream));
	COMP_CRC32C(crc, &up_to, sizeof(up_to));
	COMP_CRC32C(crc, &max_time, sizeof(max_time));
	FIN_CRC32C(crc);
	return (int32) crc;
}

/* The row of a stream, a copy; NULL: none. */
static HeapTuple
find_trim(Relation rel, Oid stream, WeirNumber *up_to, int64 *max_time)
{
	SysScanDesc scan;
	ScanKeyData key;
	HeapTuple tuple;
	Datum values[Natts_trim];
	bool nulls[Natts_trim];

	*up_to = WEIR_NO_NUMBER;
	*max_time = WEIR_NO_TIME;
	key_oid(&key, Anum_trim_stream, stream);
	scan = systable_beginscan(rel, weir_catalog_table("stream_trim_pkey"), true,
							  NULL, 1, &key);
	tuple = systable_getnext(scan);
	if (HeapTupleIsValid(tuple))
	{
		tuple = heap_copytuple(tuple);
		heap_deform_tuple(tuple, RelationGetDescr(rel), values, nulls);
		*up_to = (WeirNumber) DatumGetInt64(values[Anum_trim_up_to - 1]);
		*max_time = DatumGetInt64(values[Anum_trim_max_time - 1]);
		if (trim_checksum(stream, *up_to, *max_time) !=
			DatumGetInt32(values[Anum_trim_checksum - 1]))
		{
			*up_to = WEIR_SINCE_LOST;
			*max_time = PG_INT64_MAX;
		}
	}
	systable_endscan(scan);
	return tuple;
}

WeirNumber
weir_catalog_trimmed(Oid stream, int64 *max_time)
{
	Relation rel =
		weir_catalog_open("stream_trim", Natts_trim, AccessShareLock);
	WeirNumber up_to;
	int64 time;

	(void) find_trim(rel, stream, &up_to, &time);
	table_close(rel, AccessShareLock);
	if (max_time != NULL)
		*max_time = time;
	if (up_to == WEIR_SINCE_LOST)
		ereport(
			WARNING,
			(errcode(ERRCODE_DATA_CORRUPTED),
			 errmsg("it is not known which events stream \"%s\" has lost",
					get_rel_name(stream)),
			 errdetail("Its row in weir.stream_trim has a wrong checksum."),
			 errhint("Views that count from now on cannot be refreshed. The "
					 "row is replaced when events are removed next.")));
	return up_to;
}

/* old: the version to be replaced, or NULL. */
static void
put_trim(Relation rel, HeapTuple old, Oid stream, WeirNumber up_to,
		 int64 max_time)
{
	Datum values[Natts_trim];
	bool nulls[Natts_trim] = {false};
	HeapTuple tuple;

	values[Anum_trim_stream - 1] = ObjectIdGetDatum(stream);
	values[Anum_trim_up_to - 1] = Int64GetDatum((int64) up_to);
	values[Anum_trim_max_time - 1] = Int64GetDatum(max_time);
	values[Anum_trim_checksum - 1] =
		Int32GetDatum(trim_checksum(stream, up_to, max_time));
	tuple = heap_form_tuple(RelationGetDescr(rel), values, nulls);
	if (HeapTupleIsValid(old))
		CatalogTupleUpdate(rel, &old->t_self, tuple);
	else
		CatalogTupleInsert(rel, tuple);
	CommandCounterIncrement();
}

void
weir_catalog_set_trimmed(Oid stream, WeirNumber up_to, int64 max_time, bool any)
{
	Relation rel =
		weir_catalog_open("stream_trim", Natts_trim, RowExclusiveLock);
	WeirNumber before;
	int64 time;
	HeapTuple old = find_trim(rel, stream, &before, &time);

	/* nobody knows a damaged one, but the numbers of that time are lower */
	if (before == WEIR_SINCE_LOST)
		up_to = Max(up_to, (WeirNumber) GetXLogInsertRecPtr());
	else
		up_to = Max(up_to, any ? before + 1 : before);
	put_trim(rel, old, stream, up_to, Max(max_time, time));
	table_close(rel, NoLock);
}

void
weir_catalog_forget_trimmed_time(Oid stream)
{
	Relation rel =
		weir_catalog_open("stream_trim", Natts_trim, RowExclusiveLock);
	WeirNumber up_to;
	int64 time;
	HeapTuple old = find_trim(rel, stream, &up_to, &time);

	if (HeapTupleIsValid(old) && up_to != WEIR_SINCE_LOST &&
		time != WEIR_NO_TIME)
		put_trim(rel, old, stream, up_to, WEIR_NO_TIME);
	table_close(rel, NoLock);
}

void
weir_catalog_forget_stream(Oid stream)
{
	ScanKeyData key;

	key_oid(&key, Anum_trim_stream, stream);
	delete_rows("stream_trim", "stream_trim_pkey", 1, &key);
	delete_rows("log_run", "log_run_pkey", 1, &key);
	(void) weir_catalog_unset_stream_end(stream);
}


/* ---- streams that have ended ---- */

enum
{
	Anum_end_stream = 1,
	Anum_end_at,
	Natts_end = Anum_end_at
};

bool
weir_catalog_stream_end(Oid stream, TimestampTz *at)
{
	Oid index = find_member("stream_end_pkey");
	Relation rel;
	SysScanDesc scan;
	ScanKeyData key;
	HeapTuple tuple;
	bool found;
	bool isnull;

	/* DROP EXTENSION drops them before the streams */
	if (!OidIsValid(find_member("stream_end")) || !OidIsValid(index))
		return false;
	rel = weir_catalog_open("stream_end", Natts_end, AccessShareLock);
	key_oid(&key, Anum_end_stream, stream);
	scan = systable_beginscan(rel, index, true, NULL, 1, &key);
	tuple = systable_getnext(scan);
	found = HeapTupleIsValid(tuple);
	if (found)
		*at = DatumGetTimestampTz(
			heap_getattr(tuple, Anum_end_at, RelationGetDescr(rel), &isnull));
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	return found;
}

void
weir_catalog_set_stream_end(Oid stream, TimestampTz at)
{
	Relation rel = weir_catalog_open("stream_end", Natts_end, RowExclusiveLock);
	Datum values[Natts_end];
	bool nulls[Natts_end] = {false};

	values[Anum_end_stream - 1] = ObjectIdGetDatum(stream);
	values[Anum_end_at - 1] = TimestampTzGetDatum(at);
	CatalogTupleInsert(rel,
					   heap_form_tuple(RelationGetDescr(rel), values, nulls));
	table_close(rel, NoLock);
	CommandCounterIncrement();
}

bool
weir_catalog_unset_stream_end(Oid stream)
{
	TimestampTz at;
	ScanKeyData key;

	if (!weir_catalog_stream_end(stream, &at))
		return false;
	key_oid(&key, Anum_end_stream, stream);
	delete_rows("stream_end", "stream_end_pkey", 1, &key);
	return true;
}


/* ---- limits ---- */

/* name=value among the settings of a row of pg_db_role_setting? */
static bool
find_setting(ArrayType *settings, const char *name, int flags, int *value)
{
	Datum *elements;
	int n;
	bool found = false;

	deconstruct_array(settings, TEXTOID, -1, false, TYPALIGN_INT, &elements,
					  NULL, &n);
	for (int i = 0; i < n; i++)
	{
		char *setting = TextDatumGetCString(elements[i]);
		char *equals = strchr(setting, '=');

		if (equals == NULL)
			continue;
		*equals = '\0';
		if (pg_strcasecmp(setting, name) == 0)
			found = parse_int(equals + 1, value, flags, NULL);
	}
	return found;
}

int
weir_catalog_role_limit(const char *name, int flags, int otherwise, Oid role)
{
	const Oid rows[][2] = {
		{MyDatabaseId, role},
		{InvalidOid, role},
		{MyDatabaseId, InvalidOid},
		{InvalidOid, InvalidOid},
	};
	Relation rel;
	int value = otherwise;
	bool found = false;

	if (superuser_arg(role))
		return -1;
	rel = table_open(DbRoleSettingRelationId, AccessShareLock);
	for (int i = 0; i < lengthof(rows) && !found; i++)
	{
		ScanKeyData keys[2];
		SysScanDesc scan;
		HeapTuple tuple;

		key_oid(&keys[0], Anum_pg_db_role_setting_setdatabase, rows[i][0]);
		key_oid(&keys[1], Anum_pg_db_role_setting_setrole, rows[i][1]);
		scan = systable_beginscan(rel, DbRoleSettingDatidRolidIndexId, true,
								  NULL, 2, keys);
		tuple = systable_getnext(scan);
		if (HeapTupleIsValid(tuple))
		{
			bool isnull;
			Datum settings =
				heap_getattr(tuple, Anum_pg_db_role_setting_setconfig,
							 RelationGetDescr(rel), &isnull);

			if (!isnull)
				found = find_setting(DatumGetArrayTypeP(settings), name, flags,
									 &value);
		}
		systable_endscan(scan);
	}
	table_close(rel, AccessShareLock);
	return value;
}

/* ---- positions ---- */

/*
 * Of all fields.  Nothing else guards this row: a position one byte off would
 * lose events or count them twice.
 */
static int32
position_checksum(const WeirPositionRow *row)
{
	const char *texts[] = {row->sqlstate, row->error, row->layout};
	pg_crc32c crc;

#define ADD(field) COMP_CRC32C(crc, &row->field, sizeof(row->field))
	INIT_CRC32C(crc);
	ADD(view);
	ADD(generation);
	ADD(answering);
	ADD(position);
	ADD(watermark);
	ADD(closed_before);
	ADD(allowed_lateness);
	ADD(checkpoint_seq);
	ADD(events_in);
	ADD(late);
	ADD(late_partial);
	ADD(final_rows);
	ADD(built);
	ADD(failed_resumes);
	ADD(format);
	ADD(server_major);
	ADD(checkpoint_at);
	ADD(checkpoint_us);
	ADD(checkpoint_bytes);
	for (int i = 0; i < lengthof(texts); i++)
		if (texts[i] != NULL)
			COMP_CRC32C(crc, texts[i], strlen(texts[i]) + 1);
		else
			COMP_CRC32C(crc, "\377", 1); /* in no text */
	FIN_CRC32C(crc);
#undef ADD
	return (int32) crc;
}

/* False: what should be its length leads out of the tuple. */
static bool
get_text(char **result, Datum value, bool isnull, HeapTuple tuple)
{
	const char *p = DatumGetPointer(value);

	*result = NULL;
	if (isnull)
		return true;
	if (!VARATT_IS_EXTERNAL(p) &&
		(Size) VARSIZE_ANY(p) >
			(Size) ((const char *) tuple->t_data + tuple->t_len - p))
		return false;
	*result = TextDatumGetCString(value);
	return true;
}

/*
 * Columns of fixed length come first in the row, so that a damaged length
 * spoils none of them.
 */
static void
position_from_tuple(WeirPositionRow *row, HeapTuple tuple, TupleDesc desc)
{
	Datum v[Natts_position];
	bool n[Natts_position];
	bool ok;

	heap_deform_tuple(tuple, desc, v, n);
	row->view = DatumGetObjectId(v[Anum_position_view - 1]);
	row->generation = DatumGetInt64(v[Anum_position_generation - 1]);
	row->answering = DatumGetBool(v[Anum_position_answering - 1]);
	row->position = (WeirPosition) DatumGetInt64(v[Anum_position_position - 1]);
	row->watermark = DatumGetTimestampTz(v[Anum_position_watermark - 1]);
	row->closed_before = DatumGetInt64(v[Anum_position_closed_before - 1]);
	row->allowed_lateness =
		DatumGetInt64(v[Anum_position_allowed_lateness - 1]);
	row->checkpoint_seq = DatumGetInt64(v[Anum_position_checkpoint_seq - 1]);
	row->events_in = DatumGetInt64(v[Anum_position_events_in - 1]);
	row->late = DatumGetInt64(v[Anum_position_late - 1]);
	row->late_partial = DatumGetInt64(v[Anum_position_late_partial - 1]);
	row->final_rows = DatumGetInt64(v[Anum_position_final_rows - 1]);
	row->built = DatumGetBool(v[Anum_position_built - 1]);
	row->failed_resumes = DatumGetInt64(v[Anum_position_failed_resumes - 1]);
	row->format = DatumGetInt32(v[Anum_position_format - 1]);
	row->server_major = DatumGetInt32(v[Anum_position_server_major - 1]);
	row->checkpoint_at =
		DatumGetTimestampTz(v[Anum_position_checkpoint_at - 1]);
	row->checkpoint_us = DatumGetInt64(v[Anum_position_checkpoint_us - 1]);
	row->checkpoint_bytes =
		DatumGetInt64(v[Anum_position_checkpoint_bytes - 1]);
	row->sqlstate = row->error = row->layout = NULL;
	ok = get_text(&row->sqlstate, v[Anum_position_sqlstate - 1],
				  n[Anum_position_sqlstate - 1], tuple) &&
		 get_text(&row->error, v[Anum_position_error - 1],
				  n[Anum_position_error - 1], tuple) &&
		 get_text(&row->layout, v[Anum_position_layout - 1],
				  n[Anum_position_layout - 1], tuple);
	if (ok &&
		position_checksum(row) == DatumGetInt32(v[Anum_position_checksum - 1]))
		return;

	/* identity is for the caller, who knows it from the index */
	row->position = WEIR_NO_NUMBER;
	row->watermark = WEIR_NO_TIME;
	row->closed_before = PG_INT64_MIN;
	row->allowed_lateness = 0;
	row->events_in = row->late = row->late_partial = row->final_rows = 0;
	row->built = false;
	row->failed_resumes = -1;
	row->sqlstate = row->error = row->layout = NULL;
	row->format = WEIR_FORMAT_DAMAGED;
	row->server_major = 0;
	row->checkpoint_at = WEIR_NO_TIME;
	row->checkpoint_us = row->checkpoint_bytes = 0;
}

static void
put_text(Datum *value, bool *isnull, const char *text)
{
	*isnull = text == NULL;
	*value = text == NULL ? (Datum) 0 : CStringGetTextDatum(text);
}

static HeapTuple
position_to_tuple(const WeirPositionRow *row, TupleDesc desc)
{
	Datum v[Natts_position];
	bool n[Natts_position] = {false};

	v[Anum_position_view - 1] = ObjectIdGetDatum(row->view);
	v[Anum_position_generation - 1] = Int64GetDatum(row->generation);
	v[Anum_position_answering - 1] = BoolGetDatum(row->answering);
	v[Anum_position_position - 1] = Int64GetDatum((int64) row->position);
	v[Anum_position_watermark - 1] = TimestampTzGetDatum(row->watermark);
	v[Anum_position_closed_before - 1] = Int64GetDatum(row->closed_before);
	v[Anum_position_allowed_lateness - 1] =
		Int64GetDatum(row->allowed_lateness);
	v[Anum_position_checkpoint_seq - 1] = Int64GetDatum(row->checkpoint_seq);
	v[Anum_position_events_in - 1] = Int64GetDatum(row->events_in);
	v[Anum_position_late - 1] = Int64GetDatum(row->late);
	v[Anum_position_late_partial - 1] = Int64GetDatum(row->late_partial);
	v[Anum_position_final_rows - 1] = Int64GetDatum(row->final_rows);
	v[Anum_position_built - 1] = BoolGetDatum(row->built);
	v[Anum_position_failed_resumes - 1] = Int64GetDatum(row->failed_resumes);
	put_text(&v[Anum_position_sqlstate - 1], &n[Anum_position_sqlstate - 1],
			 row->sqlstate);
	put_text(&v[Anum_position_error - 1], &n[Anum_position_error - 1],
			 row->error);
	v[Anum_position_format - 1] = Int32GetDatum(row->format);
	v[Anum_position_server_major - 1] = Int32GetDatum(row->server_major);
	put_text(&v[Anum_position_layout - 1], &n[Anum_position_layout - 1],
			 row->layout);
	v[Anum_position_checkpoint_at - 1] =
		TimestampTzGetDatum(row->checkpoint_at);
	v[Anum_position_checkpoint_us - 1] = Int64GetDatum(row->checkpoint_us);
	v[Anum_position_checkpoint_bytes - 1] =
		Int64GetDatum(row->checkpoint_bytes);
	v[Anum_position_checksum - 1] = Int32GetDatum(position_checksum(row));
	return heap_form_tuple(desc, v, n);
}

/* One row by the index, whose keys a damaged row is believed to have. */
static bool
position_get(Relation rel, Oid view, int64 generation, Snapshot snap,
			 WeirPositionRow *row, ItemPointer tid)
{
	SysScanDesc scan;
	ScanKeyData keys[2];
	HeapTuple tuple;

	key_oid(&keys[0], Anum_position_view, view);
	key_int8(&keys[1], Anum_position_generation, generation);
	scan = systable_beginscan(rel, weir_catalog_table("view_position_pkey"),
							  true, snap, 2, keys);
	tuple = systable_getnext(scan);
	if (HeapTupleIsValid(tuple))
	{
		position_from_tuple(row, tuple, RelationGetDescr(rel));
		row->view = view;
		row->generation = generation;
		if (tid != NULL)
			*tid = tuple->t_self;
	}
	systable_endscan(scan);
	return HeapTupleIsValid(tuple);
}

/*
 * The answering one is damaged: the oldest of the generations that the wish
 * knows of, or may have left, and that are not there in good order.
 */
static bool
damaged_position_get(Relation rel, Oid view, Snapshot snap,
					 WeirPositionRow *row, ItemPointer tid)
{
	WeirWish wish;

	if (!weir_catalog_wish_get(view, &wish))
		return false;
	for (int64 g = Max(wish.generation - 16, 0); g <= wish.generation; g++)
		if (position_get(rel, view, g, snap, row, tid) &&
			row->format == WEIR_FORMAT_DAMAGED)
		{
			row->answering = true;
			return true;
		}
	return false;
}

bool
weir_catalog_position_get(Oid view, int64 generation, Snapshot snap,
						  WeirPositionRow *row, ItemPointer tid)
{
	Relation rel;
	SysScanDesc scan;
	ScanKeyData key;
	HeapTuple tuple;
	bool damaged = false;
	bool found = false;

	rel = weir_catalog_open("view_position", Natts_position, AccessShareLock);
	if (generation >= 0)
	{
		found = position_get(rel, view, generation, snap, row, tid);
		table_close(rel, AccessShareLock);
		return found;
	}
	key_oid(&key, Anum_position_view, view);
	scan = systable_beginscan(rel, weir_catalog_table("view_position_pkey"),
							  true, snap, 1, &key);
	while (!found && HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		position_from_tuple(row, tuple, RelationGetDescr(rel));
		if (row->format == WEIR_FORMAT_DAMAGED)
			damaged = true;
		else
			found = row->answering;
		if (found && tid != NULL)
			*tid = tuple->t_self;
	}
	systable_endscan(scan);
	if (!found && damaged)
		found = damaged_position_get(rel, view, snap, row, tid);
	table_close(rel, AccessShareLock);
	return found;
}

void
weir_catalog_position_check(const WeirPositionRow *row)
{
	char *name;

	if (row->format != WEIR_FORMAT_DAMAGED)
		return;
	name = get_rel_name(row->view);
	ereport(ERROR,
			(errcode(ERRCODE_DATA_CORRUPTED),
			 errmsg("checkpoint of continuous view \"%s\" is damaged",
					name ? name : psprintf("%u", row->view)),
			 errdetail("Its position has a wrong checksum."),
			 errhint("Rebuild it from its stream with REFRESH MATERIALIZED "
					 "VIEW.")));
}

/*
 * Lock the version of (view, generation) at *tid.  False: it is not the
 * newest any more, or somebody is replacing it right now.
 *
 * The version may have been vacuumed away and its line pointer reused, so the
 * place is read with a snapshot first (which also keeps it from being pruned
 * meanwhile), and what stands there must be ours: of the same view and
 * generation, and not from a later checkpoint than the caller's.
 */
static bool
lock_position(Relation rel, const WeirPositionRow *row, ItemPointer tid)
{
	Snapshot snapshot = RegisterSnapshot(GetLatestSnapshot());
	TupleTableSlot *slot = table_slot_create(rel, NULL);
	bool ok = false;

	if (table_tuple_fetch_row_version(rel, tid, snapshot, slot))
	{
		bool isnull;
		TM_FailureData failure;

		ok = DatumGetObjectId(slot_getattr(slot, Anum_position_view,
										   &isnull)) == row->view &&
			 DatumGetInt64(slot_getattr(slot, Anum_position_generation,
										&isnull)) == row->generation &&
			 DatumGetInt64(slot_getattr(slot, Anum_position_checkpoint_seq,
										&isnull)) <= row->checkpoint_seq;
		ok = ok && table_tuple_lock(rel, tid, snapshot, slot,
									GetCurrentCommandId(true),
									LockTupleNoKeyExclusive, LockWaitSkip, 0,
									&failure) == TM_Ok;
	}
	ExecDropSingleTupleTableSlot(slot);
	UnregisterSnapshot(snapshot);
	return ok;
}

bool
weir_catalog_position_put(const WeirPositionRow *row, ItemPointer tid)
{
	Relation rel;
	HeapTuple tuple;
	bool ok = true;

	rel = weir_catalog_open("view_position", Natts_position, RowExclusiveLock);
	if (ItemPointerIsValid(tid))
		ok = lock_position(rel, row, tid);
	if (ok)
	{
		tuple = position_to_tuple(row, RelationGetDescr(rel));
		if (ItemPointerIsValid(tid))
			CatalogTupleUpdate(rel, tid, tuple);
		else
			CatalogTupleInsert(rel, tuple);
		*tid = tuple->t_self;
		heap_freetuple(tuple);
		CommandCounterIncrement();
	}
	table_close(rel, NoLock);
	return ok;
}

bool
weir_catalog_position_hold(const WeirPositionRow *row, ItemPointer tid)
{
	Relation rel =
		weir_catalog_open("view_position", Natts_position, RowExclusiveLock);
	bool ok = lock_position(rel, row, tid);

	table_close(rel, NoLock);
	return ok;
}

bool
weir_catalog_needs_log(Oid view, WeirPosition *position)
{
	WeirWish wish;
	WeirPositionRow row;
	bool needs;

	*position = WEIR_NO_NUMBER;
	if (!weir_catalog_wish_get(view, &wish) || wish.wanted == WEIR_WANT_STOP)
		return false;
	if (!weir_catalog_position_get(view, -1, NULL, &row, NULL))
		return true;
	needs = row.failed_resumes != WEIR_LOST;
	if (needs)
		*position = row.position;
	if (row.generation == wish.generation)
		return needs;
	if (!weir_catalog_position_get(view, wish.generation, NULL, &row, NULL))
		*position = WEIR_NO_NUMBER;
	else if (row.failed_resumes == WEIR_LOST)
		return needs;
	else
		*position = needs ? Min(*position, row.position) : row.position;
	return true;
}

void
weir_catalog_forget_view(Oid view, int64 generation)
{
	ScanKeyData keys[2];
	int nkeys = generation >= 0 ? 2 : 1;

	key_oid(&keys[0], Anum_position_view, view);
	key_int8(&keys[1], Anum_position_generation, generation);
	delete_rows("view_position", "view_position_pkey", nkeys, keys);

	key_oid(&keys[0], Anum_blob_view, view);
	key_int8(&keys[1], Anum_blob_generation, generation);
	delete_rows("view_state", "view_state_idx", nkeys, keys);
	delete_rows("view_pending", "view_pending_idx", nkeys, keys);
	delete_rows("late_pending", "late_pending_idx", nkeys, keys);

	key_oid(&keys[0], Anum_error_view, view);
	key_int8(&keys[1], Anum_error_generation, generation);
	delete_rows("error_log", "error_log_view_idx", nkeys, keys);
	/* this is of a view, not of a generation */
	if (generation < 0)
		weir_catalog_forget_import(view);
}

void
weir_catalog_forget_import(Oid view)
{
	ScanKeyData key;

	key_oid(&key, Anum_blob_view, view);
	delete_rows("view_import", "view_import_idx", 1, &key);
}

void
weir_catalog_forget_pending(Oid view, int64 generation)
{
	ScanKeyData keys[2];

	key_oid(&keys[0], Anum_blob_view, view);
	key_int8(&keys[1], Anum_blob_generation, generation);
	delete_rows("view_pending", "view_pending_idx", 2, keys);
	delete_rows("late_pending", "late_pending_idx", 2, keys);
}


/* ---- errors ---- */

void
weir_catalog_error_add(Oid view, int64 generation, Oid stream,
					   const char *event_json, const char *sqlstate,
					   const char *message)
{
	Relation rel;
	HeapTuple tuple;
	Datum values[Natts_error];
	bool nulls[Natts_error] = {false};

	rel = weir_catalog_open("error_log", Natts_error, RowExclusiveLock);
	values[Anum_error_id - 1] = Int64GetDatum(
		nextval_internal(weir_catalog_table("error_log_id_seq"), false));
	values[Anum_error_view - 1] = ObjectIdGetDatum(view);
	values[Anum_error_generation - 1] = Int64GetDatum(generation);
	values[Anum_error_stream - 1] = ObjectIdGetDatum(stream);
	nulls[Anum_error_event - 1] = event_json == NULL;
	values[Anum_error_event - 1] =
		event_json == NULL
			? (Datum) 0
			: DirectFunctionCall1(jsonb_in, CStringGetDatum(event_json));
	values[Anum_error_sqlstate - 1] = CStringGetTextDatum(sqlstate);
	values[Anum_error_message - 1] = CStringGetTextDatum(message);
	values[Anum_error_at - 1] = TimestampTzGetDatum(weir_now());
	tuple = heap_form_tuple(RelationGetDescr(rel), values, nulls);
	CatalogTupleInsert(rel, tuple);
	heap_freetuple(tuple);
	table_close(rel, NoLock);
	CommandCounterIncrement();
}

/* ---------- replication ---------- */

/*
 * BEFORE ROW on our tables, where session_replication_role is replica: what an
 * apply worker or the copy at the start of a subscription brings is dropped.
 * Restoring a dump may have that role, too, and means it.
 */
PG_FUNCTION_INFO_V1(weir_catalog_refuse_replicated);

Datum
weir_catalog_refuse_replicated(PG_FUNCTION_ARGS)
{
	TriggerData *trigger = (TriggerData *) fcinfo->context;

	if (!CALLED_AS_TRIGGER(fcinfo))
		ereport(ERROR, (errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
						errmsg("function \"%s\" is for triggers",
							   "weir.refuse_replicated")));
	if (IsLogicalWorker())
		PG_RETURN_POINTER(NULL);
	PG_RETURN_POINTER(TRIGGER_FIRED_BY_UPDATE(trigger->tg_event)
						  ? trigger->tg_newtuple
						  : trigger->tg_trigtuple);
}
