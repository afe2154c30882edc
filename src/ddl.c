/*-------------------------------------------------------------------------
 *
 * ddl.c
 *	  CREATE / ALTER / DROP / REFRESH / TRUNCATE of streams and continuous
 *	  views: options, refusals, dependencies, wishes.
 *
 * Everything a user types is core's grammar and, as far as possible, core's
 * execution.  Three hooks see it go by:
 *
 *	ProcessUtility_hook	takes our options out of a copy of the statement,
 *						refuses, adds what core does not do;
 *	object_access_hook	acts where the object is at hand: writes the options
 *						before the first row comes (OAT_POST_CREATE), follows
 *						renames, forgets dropped views;
 *	xact callback		what others may learn only once it is true: wakes the
 *						workers and the launcher, lifts the bar on a database.
 *
 * Rules
 * - Options live in pg_class.reloptions.  Core validates all stored options
 *	 whenever it changes one, and knows none of ours; so ours are taken out of
 *	 pg_class while core changes its own, and merged back in the same command.
 *	 They are never registered with core: that breaks every CREATE TABLE.
 * - A view's wish (catalog.h) is written here and nowhere waited for: a
 *	 statement that waits for a worker while it holds a lock which the worker
 *	 wants would wait for itself.  The one wait, TRUNCATE's for a checkpoint,
 *	 comes before its locks are taken.
 * - Objects are told apart by access method OID, never by name; a name is
 *	 resolved once, with the permission check, and core then gets it qualified.
 * - Other people's statements pay a switch on the node tag; where the
 *	 extension is not installed in the database, not much more than that
 *	 even for DDL.
 * - With IsBinaryUpgrade set only options are handled: rows of our tables come
 *	 with the files.
 *
 * Not reached by hooks, refused where the access method is called (stream.c):
 * UPDATE, DELETE, MERGE, row locks, ON CONFLICT.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/relation.h"
#include "access/reloptions.h"
#include "access/stratnum.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "catalog/dependency.h"
#include "catalog/indexing.h"
#include "catalog/namespace.h"
#include "catalog/objectaccess.h"
#include "catalog/pg_am.h"
#include "catalog/pg_attribute.h"
#include "catalog/pg_authid.h"
#include "catalog/pg_class.h"
#include "catalog/pg_database.h"
#include "catalog/pg_index.h"
#include "catalog/pg_inherits.h"
#include "catalog/pg_publication.h"
#include "catalog/toasting.h"
#include "commands/dbcommands.h"
#include "commands/defrem.h"
#include "commands/matview.h"
#include "commands/tablecmds.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "nodes/parsenodes.h"
#include "storage/bufmgr.h"
#include "storage/lmgr.h"
#include "storage/lwlock.h"
#include "tcop/cmdtag.h"
#include "tcop/utility.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"

#include "catalog.h"
#include "compat.h"
#include "ddl.h"
#include "debug.h"
#include "flow.h"
#include "guc.h"
#include "late.h"
#include "launcher.h"
#include "log.h"
#include "log_trim.h"
#include "order.h"
#include "plan.h"
#include "portal.h"
#include "secure.h"
#include "shmem.h"
#include "stats.h"
#include "stream.h"


/* How long TRUNCATE waits for the checkpoint it asks for. */
#define TRUNCATE_CHECKPOINT_WAIT (30 * USECS_PER_SEC)

PG_FUNCTION_INFO_V1(weir_continuous_handler);

/*
 * A statement of ours on its way through core; statements nest.
 */
typedef struct Statement
{
	struct Statement *up;

	/* creating a stream or continuous view */
	Oid am;		   /* ours; InvalidOid: creates nothing */
	List *options; /* DefElems taken out of the statement */
	Oid created;   /* seen in OAT_POST_CREATE */

	/* ALTER TABLE */
	bool alters;
	Oid entering; /* relation being turned into a stream, by
								 * rewriting it: its new file needs options */

	/* TRUNCATE: streams that lose their rows */
	List *truncated;
} Statement;

static Statement *current = NULL;

static ProcessUtility_hook_type prev_utility = NULL;
static object_access_hook_type prev_object_access = NULL;

/* After the command: columns of streams that were renamed ... */
typedef struct Rename
{
	Oid relid;
	bool is_event_time;
	char *from;
	char *to;
} Rename;

static List *renames = NIL; /* in TopTransactionContext */

/* ... views whose owner has changed, and who it was, ... */
static List *new_owners = NIL; /* in TopTransactionContext */
static List *old_owners = NIL; /* likewise, in the same order */

/* ... and tables and views that have another name or schema. */
static List *moved = NIL; /* in TopTransactionContext */

/* At the end of the transaction */
static bool wake_at_commit = false;		/* workers: look at the wishes */
static Oid look_at_commit = InvalidOid; /* launcher: look at this database */
static Oid barred = InvalidOid;			/* database to unbar, commit or abort */
static List *truncated_at_commit = NIL; /* in TopTransactionContext */

/* Streams dropped by (sub)transactions that have not aborted: the OIDs, and at
 * which nesting level each was; in TopTransactionContext. */
static List *dropped_at_commit = NIL;
static List *dropped_levels = NIL;

/* The arguments of ProcessUtility, for passing on */
typedef struct Utility
{
	PlannedStmt *pstmt;
	const char *query_string;
	bool read_only_tree;
	ProcessUtilityContext context;
	ParamListInfo params;
	QueryEnvironment *query_env;
	DestReceiver *dest;
	QueryCompletion *qc;
} Utility;


/*
 * The access method of continuous views is heap itself: the same pointer,
 * because heap's index build compares it.  The handler is ours all the same,
 * so that opening a view loads the library.
 */
Datum
weir_continuous_handler(PG_FUNCTION_ARGS)
{
	PG_RETURN_POINTER(GetHeapamTableAmRoutine());
}


/* ---- small helpers ---- */

static void
run_core(Utility *u)
{
	if (prev_utility)
		prev_utility(u->pstmt, u->query_string, u->read_only_tree, u->context,
					 u->params, u->query_env, u->dest, u->qc);
	else
		standard_ProcessUtility(u->pstmt, u->query_string, u->read_only_tree,
								u->context, u->params, u->query_env, u->dest,
								u->qc);
}

/* Run core with a statement on the stack, which comes off whatever happens. */
static void
run_core_as(Utility *u, Statement *statement)
{
	statement->up = current;
	current = statement;
	PG_TRY();
	{
		run_core(u);
	}
	PG_FINALLY();
	{
		current = statement->up;
	}
	PG_END_TRY();
}

/* Our own copy of the statement: the tree may belong to a cached plan. */
static Node *
own_statement(Utility *u)
{
	u->pstmt = copyObject(u->pstmt);
	u->read_only_tree = false;
	return u->pstmt->utilityStmt;
}

/* Core's checks for a utility statement that writes, when core is left out. */
static void
check_may_write(const char *command)
{
	PreventCommandIfReadOnly(command);
	PreventCommandIfParallelMode(command);
	PreventCommandDuringRecovery(command);
}

/* Our access method of this name (NULL: the default one), else InvalidOid. */
static Oid
our_am(const char *name)
{
	if (name == NULL)
		name = default_table_access_method;
	if (name == NULL)
		return InvalidOid;
	if (strcmp(name, "stream") == 0)
		return weir_catalog_stream_am();
	if (strcmp(name, "continuous") == 0)
		return weir_catalog_continuous_am();
	return InvalidOid;
}

static void
qualify(RangeVar *rv, Oid relid)
{
	rv->schemaname = get_namespace_name(get_rel_namespace(relid));
	rv->relname = get_rel_name(relid);
	if (rv->schemaname == NULL || rv->relname == NULL)
		elog(ERROR, "unexpected disappearance of relation %u", relid);
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

/* Remember something until the end of the transaction. */
static List *
append_oid(List *list, Oid oid)
{
	MemoryContext old = MemoryContextSwitchTo(TopTransactionContext);

	list = list_append_unique_oid(list, oid);
	MemoryContextSwitchTo(old);
	return list;
}


/* ---- reloptions ---- */

/* pg_class.reloptions as stored; 0 if none. */
static Datum
get_options(Oid relid)
{
	HeapTuple tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(relid));
	Datum datum;
	bool isnull;

	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for relation %u", relid);
	datum = SysCacheGetAttr(RELOID, tuple, Anum_pg_class_reloptions, &isnull);
	datum = isnull ? (Datum) 0 : PointerGetDatum(DatumGetArrayTypePCopy(datum));
	ReleaseSysCache(tuple);
	return datum;
}

static void
put_options(Oid relid, Datum options)
{
	Relation rel = table_open(RelationRelationId, RowExclusiveLock);
	/* the caller may have no lock that keeps VACUUM's update in place away */
	HeapTuple tuple =
		SearchSysCacheLockedCopy1(RELOID, ObjectIdGetDatum(relid));
	ItemPointerData tid;
	Datum values[Natts_pg_class] = {0};
	bool nulls[Natts_pg_class] = {false};
	bool replace[Natts_pg_class] = {false};

	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for relation %u", relid);
	tid = tuple->t_self;
	values[Anum_pg_class_reloptions - 1] = options;
	nulls[Anum_pg_class_reloptions - 1] = options == (Datum) 0;
	replace[Anum_pg_class_reloptions - 1] = true;
	tuple =
		heap_modify_tuple(tuple, RelationGetDescr(rel), values, nulls, replace);
	CatalogTupleUpdate(rel, &tid, tuple);
	UnlockTuple(rel, &tid, InplaceUpdateTupleLock);
	table_close(rel, RowExclusiveLock);
	CommandCounterIncrement();
}

static Datum
merge_options(Datum options, List *defs, bool reset)
{
	if (defs == NIL)
		return options;
	return transformRelOptions(options, defs, NULL, NULL, false, reset);
}

static const char *
find_option(Datum options, const char *name)
{
	ListCell *lc;

	if (options == (Datum) 0)
		return NULL;
	foreach(lc, untransformRelOptions(options))
	{
		DefElem *def = lfirst_node(DefElem, lc);

		if (strcmp(def->defname, name) == 0)
			return defGetString(def);
	}
	return NULL;
}

static bool
is_option_of(Oid am, const DefElem *def)
{
	if (def->defnamespace != NULL)
		return false;
	if (am == weir_catalog_stream_am())
		return weir_catalog_is_stream_option(def->defname);
	return weir_catalog_is_view_option(def->defname);
}

/*
 * Split a list of options into ours (returned) and the rest (*options).  A
 * value of ours becomes a plain string: the grammar turns a column name that
 * is a type keyword (time, timestamp) into a TypeName.
 */
static List *
take_options(Oid am, List **options, bool reset)
{
	List *ours = NIL;
	List *rest = NIL;
	ListCell *lc;

	foreach(lc, *options)
	{
		DefElem *def = lfirst_node(DefElem, lc);
		ListCell *lc2;

		if (!is_option_of(am, def))
		{
			rest = lappend(rest, def);
			continue;
		}
		foreach(lc2, ours)
		{
			if (strcmp(lfirst_node(DefElem, lc2)->defname, def->defname) == 0)
				ereport(ERROR,
						(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						 errmsg("parameter \"%s\" specified more than once",
								def->defname)));
		}
		if (!reset)
		{
			if (def->arg == NULL)
				ereport(ERROR,
						(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						 errmsg("option \"%s\" needs a value", def->defname)));
			if (IsA(def->arg, TypeName))
				def->arg = (Node *) makeString(
					pstrdup(strVal(llast(((TypeName *) def->arg)->names))));
			else
				def->arg = (Node *) makeString(defGetString(def));
		}
		ours = lappend(ours, def);
	}
	*options = rest;
	return ours;
}

/* Parse and check all options of a stream by reading them back. */
static void
validate_stream(Oid relid)
{
	Relation rel = table_open(relid, AccessShareLock);

	(void) weir_catalog_stream_options(rel);
	table_close(rel, NoLock);
}


/* ---- plans of views ---- */

/* May the role own one more view than so many others there are? */
static void
check_role_views(Oid role, Oid view)
{
	int limit = weir_catalog_role_limit("weir.max_role_views", 0,
										weir_max_role_views, role);
	int n = 0;
	ListCell *lc;

	if (limit < 0)
		return;
	foreach(lc, weir_catalog_wish_all())
	{
		const WeirWish *wish = lfirst(lc);
		Form_pg_class form;
		HeapTuple tuple;

		if (wish->view == view)
			continue;
		tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(wish->view));
		if (!HeapTupleIsValid(tuple))
			continue;
		form = (Form_pg_class) GETSTRUCT(tuple);
		n += form->relowner == role;
		ReleaseSysCache(tuple);
	}
	if (n >= limit)
		ereport(ERROR, (errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
						errmsg("role \"%s\" has too many continuous views",
							   GetUserNameFromId(role, false)),
						errdetail("\"weir.max_role_views\" of the role is %d.",
								  limit)));
}

/*
 * Analyse a view from its stored query, as this owner; with check, his rights
 * on what it reads, too.
 */
static WeirViewPlan *
plan_view(Oid view, Oid owner, bool notice, bool check)
{
	WeirViewOptions *options = weir_catalog_view_options(view);
	WeirViewPlan *plan;
	WeirSecure secure;

	weir_secure_enter(&secure, owner, options->settings);
	plan = weir_plan_query(weir_plan_view_query(view), view, owner, notice);
	if (check)
		weir_plan_check_rights(plan);
	weir_secure_leave(&secure);
	return plan;
}

/* Options that make no sense for this query; all are given as stored. */
static void
validate_view(Oid view, const WeirViewPlan *plan)
{
	static const char *const need_window[] = {"allowed_lateness", "late_table",
											  "emit"};
	static const char *const late[] = {"allowed_lateness", "late_table"};
	Datum options = get_options(view);

	(void) weir_catalog_view_options(view);
	if (plan->window.kind == WEIR_WINDOW_NONE ||
		plan->window.kind == WEIR_WINDOW_COUNT)
	{
		/* windows that count rows end, if not in time */
		int n = lengthof(need_window) -
				(plan->window.kind == WEIR_WINDOW_COUNT ? 1 : 0);

		for (int i = 0; i < n; i++)
			if (find_option(options, need_window[i]) != NULL)
				ereport(ERROR,
						(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
						 errmsg("continuous view \"%s\" cannot have option "
								"\"%s\"",
								get_rel_name(view), need_window[i]),
						 errdetail("Its query has no time window."),
						 errhint("Add a window such as tumble() to FROM and "
								 "GROUP BY.")));
	}
	if (plan->window.by_arrival)
	{
		for (int i = 0; i < lengthof(late); i++)
			if (find_option(options, late[i]) != NULL)
				ereport(ERROR,
						(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
						 errmsg("continuous view \"%s\" cannot have option "
								"\"%s\"",
								get_rel_name(view), late[i]),
						 errdetail("Its windows are over now(): nothing is "
								   "ever late for them."),
						 errhint("Leave the option out, or use a window over "
								 "the event time.")));
	}
	if (find_option(options, "retention") != NULL &&
		(plan->window.kind == WEIR_WINDOW_COUNT ||
		 (plan->window_end_column == 0 &&
		  (plan->window_start_column == 0 ||
		   plan->window.kind == WEIR_WINDOW_SESSION))))
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("continuous view \"%s\" cannot have option "
						"\"retention\"",
						get_rel_name(view)),
				 errdetail("Its rows do not show when their window ended."),
				 errhint("Add the window_end of a time window to the select "
						 "list.")));
}

/* The option names the late table as it is called now. */
static void
sync_late_option(Oid view)
{
	Oid table = weir_late_table(view);
	Datum options;
	const char *is;
	const char *name;
	DefElem *def;

	if (!OidIsValid(table))
		return;
	options = get_options(view);
	is = find_option(options, "late_table");
	name = weir_late_option(view, table);
	if (is != NULL && strcmp(is, name) == 0)
		return;
	def = makeDefElem("late_table", (Node *) makeString(pstrdup(name)), -1);
	put_options(view, merge_options(options, list_make1(def), false));
}

/* The option was set, or (NULL) reset. */
static void
set_late_table(Oid view, const WeirViewPlan *plan, const char *name)
{
	weir_late_attach(view, plan, name);
	if (name != NULL)
		sync_late_option(view);
}

/*
 * Raise if a view with a window over event time reads this stream, or (anew) if
 * one has it now and had not before: its groups were made without one.
 */
static void
check_no_windowed_view(Oid stream, bool anew)
{
	ListCell *lc;

	foreach(lc, weir_catalog_views_of_stream(stream))
	{
		Oid view = lfirst_oid(lc);
		const WeirWindow *window;

		if (!weir_catalog_is_continuous_oid(view))
			continue;
		window = &plan_view(view, owner_of(view), false, false)->window;
		if (window->kind != WEIR_WINDOW_NONE &&
			window->kind != WEIR_WINDOW_COUNT && !window->by_arrival)
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_IN_USE),
					 errmsg("cannot change the event time of stream \"%s\"",
							get_rel_name(stream)),
					 anew ? errdetail("Continuous view \"%s\" groups by "
									  "date_trunc() or date_bin() of it, which "
									  "would become its window.",
									  get_rel_name(view))
						  : errdetail("Continuous view \"%s\" has a window "
									  "over it.",
									  get_rel_name(view)),
					 errhint("Drop the view first.")));
	}
}

/* Does a stream hold anything?  The caller holds a lock that keeps it so. */
static bool
stream_has_rows(Oid relid)
{
	Relation rel = table_open(relid, NoLock);
	BlockNumber blocks;
	bool result;

	weir_stream_flush(relid);
	blocks = RelationGetNumberOfBlocks(rel);
	result = weir_stream_pending(rel);
	if (!result && blocks > 0)
	{
		Snapshot snapshot = RegisterSnapshot(GetLatestSnapshot());
		WeirLogScan *scan = weir_log_scan_begin(rel, snapshot, 0, blocks);
		const char *image;
		Size len;
		ItemPointerData tid;

		result = weir_log_scan_next(scan, true, &image, &len, &tid);
		weir_log_scan_end(scan);
		UnregisterSnapshot(snapshot);
	}
	table_close(rel, NoLock);
	return result;
}


/* ---- object access: creation ---- */

typedef struct NewClass
{
	Oid am;
	char relkind;
	Oid rewrites; /* relation this one is the new file of */
	Oid owner;
	Oid schema;
	NameData name;
} NewClass;

/* The pg_class row as this very command left it. */
static bool
read_class(Oid relid, NewClass *class)
{
	Relation rel = table_open(RelationRelationId, AccessShareLock);
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple tuple;
	bool found;

	ScanKeyInit(&key, Anum_pg_class_oid, BTEqualStrategyNumber, F_OIDEQ,
				ObjectIdGetDatum(relid));
	scan =
		systable_beginscan(rel, ClassOidIndexId, true, SnapshotSelf, 1, &key);
	tuple = systable_getnext(scan);
	found = HeapTupleIsValid(tuple);
	if (found)
	{
		Form_pg_class form = (Form_pg_class) GETSTRUCT(tuple);

		class->am = form->relam;
		class->relkind = form->relkind;
		class->rewrites = form->relrewrite;
		class->owner = form->relowner;
		class->schema = form->relnamespace;
		class->name = form->relname;
	}
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	return found;
}

/* Are values that differ as the key different for the index column too? */
static bool
index_tells_apart(const WeirKey *key, Oid opclass, Oid collation)
{
	Oid type = get_opclass_input_type(opclass);

	return get_opfamily_member(get_opclass_family(opclass), type, type,
							   BTEqualStrategyNumber) == key->eq_op &&
		   (!OidIsValid(collation) || collation == key->collation ||
			get_collation_isdeterministic(collation));
}

/*
 * UNIQUE on a view: the planner believes it of the whole relation, final and
 * live rows together.  True only if the columns tell groups apart.
 */
static void
check_unique_index(Oid view, HeapTuple tuple)
{
	Form_pg_index index = (Form_pg_index) GETSTRUCT(tuple);
	WeirViewPlan *plan = plan_view(view, owner_of(view), false, false);
	bool isnull;
	oidvector *opclasses = (oidvector *) DatumGetPointer(
		SysCacheGetAttr(INDEXRELID, tuple, Anum_pg_index_indclass, &isnull));
	oidvector *collations = (oidvector *) DatumGetPointer(SysCacheGetAttr(
		INDEXRELID, tuple, Anum_pg_index_indcollation, &isnull));
	bool has_window = false;
	bool covers_window = false;

	for (int key = 0; key < plan->nkeys; key++)
	{
		bool covered = false;

		for (int i = 0; i < index->indnkeyatts; i++)
		{
			AttrNumber attno = index->indkey.values[i];

			covered = covered ||
					  (attno > 0 && attno <= list_length(plan->targetlist) &&
					   plan->column_key[attno - 1] == key &&
					   index_tells_apart(&plan->keys[key], opclasses->values[i],
										 collations->values[i]));
		}
		if (plan->keys[key].is_window)
		{
			has_window = true;
			covers_window = covers_window || covered;
		}
		else if (!covered)
			goto refuse;
	}
	if (!has_window || covers_window)
		return;

refuse:
	ereport(ERROR,
			(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
			 errmsg("cannot create a unique index on continuous view \"%s\"",
					get_rel_name(view)),
			 errdetail("Its columns do not include all of the view's GROUP BY "
					   "columns, with their equality."),
			 errhint("Add the missing GROUP BY columns to the index, or leave "
					 "out UNIQUE.")));
}

/* Every index comes by here, whatever statement makes it. */
static void
index_created(Oid indexid)
{
	Relation rel = table_open(IndexRelationId, AccessShareLock);
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple tuple;
	HeapTuple copy = NULL;

	ScanKeyInit(&key, Anum_pg_index_indexrelid, BTEqualStrategyNumber, F_OIDEQ,
				ObjectIdGetDatum(indexid));
	scan =
		systable_beginscan(rel, IndexRelidIndexId, true, SnapshotSelf, 1, &key);
	tuple = systable_getnext(scan);
	if (HeapTupleIsValid(tuple))
		copy = heap_copytuple(tuple);
	systable_endscan(scan);
	table_close(rel, AccessShareLock);

	if (copy != NULL)
	{
		Form_pg_index index = (Form_pg_index) GETSTRUCT(copy);

		if (weir_catalog_is_stream_oid(index->indrelid))
			ereport(
				ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("cannot create an index on stream \"%s\"",
						get_rel_name(index->indrelid)),
				 errdetail("This includes primary key, unique and exclusion "
						   "constraints."),
				 errhint("Create a continuous view and index that.")));
		if (index->indisunique && !IsBinaryUpgrade &&
			weir_catalog_is_continuous_oid(index->indrelid))
			check_unique_index(index->indrelid, copy);
		heap_freetuple(copy);
	}
}

/*
 * A rewrite begins: a transient relation takes the rows of an old one.  VACUUM
 * FULL copies chunks as they are; ALTER TABLE would make rows anew.
 */
static void
rewrite_created(Oid relid, const NewClass *class)
{
	if (current == NULL || !current->alters)
		return;

	if (class->rewrites == current->entering)
	{
		/* the rows come next, and their event time must be known */
		if (current->options != NIL)
		{
			CommandCounterIncrement();
			put_options(relid, merge_options(get_options(relid),
											 current->options, false));
			validate_stream(relid);
		}
		return;
	}

	if (weir_catalog_is_stream_oid(class->rewrites) &&
		stream_has_rows(class->rewrites))
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("cannot rewrite stream \"%s\" because it is not empty",
						get_rel_name(class->rewrites)),
				 errdetail("The statement would write every event anew."),
				 errhint("Create a new stream and copy the events, or TRUNCATE "
						 "this one first.")));
}

static void
relation_created(Oid relid, bool is_internal)
{
	Oid stream_am = weir_catalog_stream_am();
	Oid continuous_am = weir_catalog_continuous_am();
	NewClass class;
	Datum options;

	if (!OidIsValid(stream_am) || !read_class(relid, &class))
		return;
	if (class.relkind == RELKIND_INDEX ||
		class.relkind == RELKIND_PARTITIONED_INDEX)
	{
		index_created(relid);
		return;
	}
	if (class.am != stream_am && class.am != continuous_am)
	{
		/*
		 * A stream becomes an ordinary table.  It has no TOAST table, so core
		 * makes none for the new file, where its long values must go.
		 */
		if (OidIsValid(class.rewrites) &&
			weir_catalog_is_stream_oid(class.rewrites))
		{
			CommandCounterIncrement();
			NewHeapCreateToastTable(relid, (Datum) 0, AccessExclusiveLock,
									InvalidOid);
		}
		return;
	}
	if (class.am == stream_am && OidIsValid(class.rewrites))
	{
		rewrite_created(relid, &class);
		return;
	}
	if (class.am == continuous_am && OidIsValid(class.rewrites) &&
		!IsBinaryUpgrade)
	{
		/*
		 * Without our utility hook this may be core's REFRESH, which would run
		 * the query and fill the view beside its state.
		 */
		weir_shmem_require();
	}
	if (is_internal)
		return;

	if (class.am == stream_am && class.relkind != RELKIND_RELATION &&
		class.relkind != RELKIND_PARTITIONED_TABLE)
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("\"%s\" cannot use access method \"stream\"",
						NameStr(class.name)),
				 errdetail("Only tables can be streams."),
				 errhint("Write USING continuous for a continuous view, or "
						 "USING heap.")));
	if (class.am == continuous_am && class.relkind != RELKIND_MATVIEW)
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("\"%s\" cannot use access method \"continuous\"",
						NameStr(class.name)),
				 errdetail("Only materialized views can be continuous views."),
				 errhint("Use CREATE MATERIALIZED VIEW ... USING continuous AS "
						 "SELECT ...")));
	if (class.relkind == RELKIND_PARTITIONED_TABLE)
		return; /* a default for partitions; has no rows */
	if (!IsBinaryUpgrade)
		weir_shmem_require();

	/* core does as much a few lines on, see StoreConstraints */
	CommandCounterIncrement();
	options = get_options(relid);
	if (current != NULL && current->am == class.am &&
		!OidIsValid(current->created))
	{
		current->created = relid;
		options = merge_options(options, current->options, false);
	}
	if (class.am == continuous_am && !IsBinaryUpgrade)
	{
		char *settings = weir_secure_freeze(find_option(options, "settings"));
		DefElem *def;

		def = makeDefElem("settings", (Node *) makeString(settings), -1);
		options = merge_options(options, list_make1(def), false);
	}
	if (options != (Datum) 0)
		put_options(relid, options);
	if (class.am == stream_am)
		validate_stream(relid);
}


/* ---- object access: changes ---- */

/* A column of a stream was altered; the syscache still has it as it was. */
static void
column_altered(Oid relid, AttrNumber attno)
{
	const char *event_time = find_option(get_options(relid), "event_time");
	HeapTuple old;
	Relation rel;
	ScanKeyData keys[2];
	SysScanDesc scan;
	HeapTuple tuple;

	bool is_event_time;

	old =
		SearchSysCache2(ATTNUM, ObjectIdGetDatum(relid), Int16GetDatum(attno));
	if (!HeapTupleIsValid(old))
		return;
	is_event_time =
		event_time != NULL &&
		strcmp(NameStr(((Form_pg_attribute) GETSTRUCT(old))->attname),
			   event_time) == 0;
	rel = table_open(AttributeRelationId, AccessShareLock);
	ScanKeyInit(&keys[0], Anum_pg_attribute_attrelid, BTEqualStrategyNumber,
				F_OIDEQ, ObjectIdGetDatum(relid));
	ScanKeyInit(&keys[1], Anum_pg_attribute_attnum, BTEqualStrategyNumber,
				F_INT2EQ, Int16GetDatum(attno));
	scan = systable_beginscan(rel, AttributeRelidNumIndexId, true, SnapshotSelf,
							  2, keys);
	tuple = systable_getnext(scan);
	if (HeapTupleIsValid(tuple))
	{
		Form_pg_attribute was = (Form_pg_attribute) GETSTRUCT(old);
		Form_pg_attribute is = (Form_pg_attribute) GETSTRUCT(tuple);

		if (is_event_time && was->atttypid != is->atttypid)
			ereport(ERROR,
					(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					 errmsg("cannot change the type of column \"%s\" of stream "
							"\"%s\"",
							NameStr(was->attname), get_rel_name(relid)),
					 errdetail("It is the stream's event time."),
					 errhint("Add a column and copy the events into a new "
							 "stream.")));
		if (strcmp(NameStr(was->attname), NameStr(is->attname)) != 0)
		{
			MemoryContext cxt = MemoryContextSwitchTo(TopTransactionContext);
			Rename *rename = palloc(sizeof(Rename));

			rename->relid = relid;
			rename->is_event_time = is_event_time;
			rename->from = pstrdup(NameStr(was->attname));
			rename->to = pstrdup(NameStr(is->attname));
			renames = lappend(renames, rename);
			MemoryContextSwitchTo(cxt);
		}
	}
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	ReleaseSysCache(old);
}

static void
column_dropped(Oid relid, AttrNumber attno, int flags)
{
	const char *event_time;
	const char *column;

	if ((flags & PERFORM_DELETION_INTERNAL) != 0 ||
		!weir_catalog_is_stream_oid(relid))
		return;
	event_time = find_option(get_options(relid), "event_time");
	column = get_attname(relid, attno, true);
	if (event_time != NULL && column != NULL && strcmp(event_time, column) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_DEPENDENT_OBJECTS_STILL_EXIST),
				 errmsg("cannot drop column \"%s\" of stream \"%s\"", column,
						get_rel_name(relid)),
				 errdetail("It is the stream's event time."),
				 errhint("Set the option \"event_time\" to another column, or "
						 "reset it, first.")));
}

/*
 * Did the owner of a view change?  Then his rights count from now on.  Did
 * anything change its name?  It may be a late table.
 */
static void
relation_altered(Oid relid)
{
	NewClass class;
	const char *name;

	if (!read_class(relid, &class) ||
		(class.relkind != RELKIND_RELATION && class.relkind != RELKIND_MATVIEW))
		return;
	name = get_rel_name(relid);
	if (name == NULL)
		return;
	if (strcmp(name, NameStr(class.name)) != 0 ||
		class.schema != get_rel_namespace(relid))
		moved = append_oid(moved, relid);
	if (weir_catalog_is_continuous_oid(relid) &&
		class.owner != owner_of(relid) && !list_member_oid(new_owners, relid))
	{
		MemoryContext old = MemoryContextSwitchTo(TopTransactionContext);

		new_owners = lappend_oid(new_owners, relid);
		old_owners = lappend_oid(old_owners, owner_of(relid));
		MemoryContextSwitchTo(old);
	}
}

static void
relation_dropped(Oid relid)
{
	if (weir_catalog_is_stream_oid(relid) && !IsBinaryUpgrade)
	{
		MemoryContext old = MemoryContextSwitchTo(TopTransactionContext);

		dropped_at_commit = lappend_oid(dropped_at_commit, relid);
		dropped_levels =
			lappend_int(dropped_levels, GetCurrentTransactionNestLevel());
		MemoryContextSwitchTo(old);
		weir_catalog_forget_stream(relid);
	}
	if (!weir_catalog_is_continuous_oid(relid) || IsBinaryUpgrade)
		return;
	weir_catalog_forget_view(relid, -1);
	weir_catalog_wish_delete(relid);
	wake_at_commit = true;
}

static void
object_access(ObjectAccessType access, Oid class, Oid object, int sub,
			  void *arg)
{
	if (prev_object_access)
		prev_object_access(access, class, object, sub, arg);

	if (class == AccessMethodRelationId)
	{
		/* CREATE EXTENSION, also of one that requires ours; or its end */
		if (access == OAT_POST_CREATE || access == OAT_DROP)
		{
			look_at_commit = MyDatabaseId;
			wake_at_commit = true;
		}
		return;
	}
	if (class != RelationRelationId)
		return;

	switch (access)
	{
		case OAT_POST_CREATE:
			if (sub == 0)
				relation_created(
					object, arg != NULL &&
								((ObjectAccessPostCreate *) arg)->is_internal);
			break;
		case OAT_DROP:
			if (!OidIsValid(weir_catalog_stream_am()))
				break;
			if (sub == 0)
				relation_dropped(object);
			else
				column_dropped(object, sub,
							   ((ObjectAccessDrop *) arg)->dropflags);
			break;
		case OAT_POST_ALTER:
			if (!OidIsValid(weir_catalog_stream_am()))
				break;
			if (sub == 0)
				relation_altered(object);
			else if (weir_catalog_is_stream_oid(object))
				column_altered(object, sub);
			break;
		case OAT_TRUNCATE:
			if (current != NULL && weir_catalog_is_stream_oid(object))
				current->truncated = append_oid(current->truncated, object);
			break;
		default:
			break;
	}
}

/* What a command noted above, once it is through. */
static void
after_command(void)
{
	if (renames == NIL && new_owners == NIL && moved == NIL)
		return;

	CommandCounterIncrement();
	while (renames != NIL)
	{
		Rename *rename = linitial(renames);
		DefElem *def;

		renames = list_delete_first(renames);
		if (rename->is_event_time)
		{
			def =
				makeDefElem("event_time", (Node *) makeString(rename->to), -1);
			put_options(rename->relid, merge_options(get_options(rename->relid),
													 list_make1(def), false));
		}
		weir_late_rename_column(rename->relid, rename->from, rename->to);
	}
	while (moved != NIL)
	{
		Oid relid = linitial_oid(moved);
		ListCell *lc;

		moved = list_delete_first(moved);
		if (weir_catalog_is_continuous_oid(relid))
			sync_late_option(relid);
		foreach(lc, weir_late_views(relid))
			sync_late_option(lfirst_oid(lc));
	}
	while (new_owners != NIL)
	{
		Oid view = linitial_oid(new_owners);
		Oid old_owner = linitial_oid(old_owners);
		WeirWish wish;
		bool reads;

		new_owners = list_delete_first(new_owners);
		old_owners = list_delete_first(old_owners);
		if (IsBinaryUpgrade || !weir_catalog_is_continuous_oid(view))
			continue;

		/*
		 * A stopped view reads nothing: its owner's rights are checked when it
		 * is started.  pg_dump's restore sets owners before it grants rights.
		 */
		check_role_views(owner_of(view), view);
		reads =
			weir_catalog_wish_get(view, &wish) && wish.wanted != WEIR_WANT_STOP;
		if (reads)
			plan_view(view, owner_of(view), false, true);
		weir_late_change_owner(view, old_owner, reads);
		wake_at_commit = true;
	}
}


/* A late table in another schema than its view is named with its schema. */
static void
schema_renamed(void)
{
	ListCell *lc;

	if (!OidIsValid(weir_catalog_stream_am()))
		return;
	CommandCounterIncrement();
	foreach(lc, weir_catalog_wish_all())
	{
		Oid view = ((WeirWish *) lfirst(lc))->view;

		if (!OidIsValid(weir_late_table(view)))
			continue;
		/* somebody may be about to drop it */
		LockRelationOid(view, AccessShareLock);
		if (SearchSysCacheExists1(RELOID, ObjectIdGetDatum(view)))
			sync_late_option(view);
	}
}


/* ---- CREATE ---- */

/* Refuse to make a stream that views read an inheritance parent. */
static void
check_inherits(List *parents)
{
	ListCell *lc;

	foreach(lc, parents)
	{
		Oid parent = RangeVarGetRelid(lfirst_node(RangeVar, lc), NoLock, true);

		if (OidIsValid(parent) && weir_catalog_is_stream_oid(parent) &&
			weir_catalog_views_of_stream(parent) != NIL)
			ereport(ERROR,
					(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					 errmsg("cannot inherit from stream \"%s\"",
							get_rel_name(parent)),
					 errdetail("Continuous views read it, and they read one "
							   "table only."),
					 errhint("Create the table with LIKE instead of "
							 "INHERITS.")));
	}
}

/*
 * The access method a CREATE TABLE will use.  On newer servers a partition
 * takes its parent's unless it names one; on older ones a parent has none.
 */
static Oid
create_table_am(CreateStmt *stmt)
{
	if (stmt->accessMethod == NULL && stmt->partbound != NULL &&
		list_length(stmt->inhRelations) == 1)
	{
		Oid parent;
		HeapTuple tuple;
		Oid am = InvalidOid;

		parent = RangeVarGetRelid(linitial_node(RangeVar, stmt->inhRelations),
								  NoLock, true);
		tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(parent));
		if (HeapTupleIsValid(tuple))
		{
			am = ((Form_pg_class) GETSTRUCT(tuple))->relam;
			ReleaseSysCache(tuple);
		}
		if (OidIsValid(am))
			return am == weir_catalog_stream_am() ? am : InvalidOid;
	}
	return our_am(stmt->accessMethod);
}

static void
create_table(Utility *u)
{
	CreateStmt *stmt = (CreateStmt *) u->pstmt->utilityStmt;
	Statement statement = {0};

	if (stmt->inhRelations != NIL && stmt->partbound == NULL &&
		OidIsValid(weir_catalog_stream_am()))
		check_inherits(stmt->inhRelations);

	if (stmt->partspec == NULL)
		statement.am = create_table_am(stmt);
	if (!OidIsValid(statement.am) || statement.am != weir_catalog_stream_am())
	{
		run_core(u);
		return;
	}
	stmt = (CreateStmt *) own_statement(u);
	statement.options = take_options(statement.am, &stmt->options, false);
	run_core_as(u, &statement);
}

/* Say what a new view shall do. */
static void
make_wish(Oid view, Oid stream, bool run)
{
	WeirWish wish;

	/*
	 * A view dropped by a session that had not loaded us left its rows; the
	 * OID may have come round again.
	 */
	weir_catalog_forget_view(view, -1);

	wish.view = view;
	wish.stream = stream;
	wish.wanted = run ? WEIR_WANT_RUN : WEIR_WANT_STOP;
	wish.generation = 1;
	wish.resumes = 0;
	wish.kept_through = PG_INT64_MIN;
	weir_log_lock_history(stream, false);
	wish.since = weir_catalog_trimmed(stream, NULL);
	weir_catalog_wish_put(&wish);
	wake_at_commit = true;
	weir_debug_point("view-created");
}

/* Core has made the view, empty: judge its query. */
static void
view_created(Oid view, bool run, bool notice)
{
	WeirViewPlan *plan;

	check_role_views(owner_of(view), view);
	plan = plan_view(view, owner_of(view), notice, true);
	validate_view(view, plan);
	set_late_table(view, plan, find_option(get_options(view), "late_table"));
	make_wish(view, plan->stream, run);
	if (run)
	{
		Relation rel = table_open(view, AccessExclusiveLock);

		SetMatViewPopulatedState(rel, true);
		table_close(rel, NoLock);
		CommandCounterIncrement();
	}
}

/*
 * The same of a view from a dump, which is stopped.  Its owner is still whoever
 * restores, maybe a superuser, and planning calls functions that are in the
 * view, with his rights.  So it is planned when REFRESH starts it, as its owner.
 */
static void
view_restored(Oid view)
{
	Oid owner = owner_of(view);
	WeirSecure secure;
	Oid stream;

	check_role_views(owner, view);
	weir_secure_enter(&secure, owner,
					  weir_catalog_view_options(view)->settings);
	stream = weir_plan_find_stream(weir_plan_view_query(view), view, owner);
	weir_secure_leave(&secure);
	weir_late_reattach(view, owner,
					   find_option(get_options(view), "late_table"));
	make_wish(view, stream, false);
}

static void
create_table_as(Utility *u)
{
	CreateTableAsStmt *stmt = (CreateTableAsStmt *) u->pstmt->utilityStmt;
	Statement statement = {0};
	bool is_view;
	bool run;
	bool restored = false;
	ListCell *lc;

	statement.am = our_am(stmt->into->accessMethod);
	if (!OidIsValid(statement.am))
	{
		run_core(u);
		return;
	}

	stmt = (CreateTableAsStmt *) own_statement(u);
	is_view = stmt->objtype == OBJECT_MATVIEW &&
			  statement.am == weir_catalog_continuous_am();
	statement.options = take_options(statement.am, &stmt->into->options, false);
	foreach(lc, statement.options)
	{
		if (strcmp(lfirst_node(DefElem, lc)->defname, "settings") == 0)
			restored = true; /* pg_dump carries them; users do not */
	}
	run = !stmt->into->skipData;
	if (is_view)
		stmt->into->skipData = true; /* core never runs the query */
	run_core_as(u, &statement);
	/* nobody sees this tag, and SPI insists on it for a view WITH DATA */
	if (is_view && run && u->qc && u->context != PROCESS_UTILITY_TOPLEVEL)
		SetQueryCompletion(u->qc, CMDTAG_SELECT, 0);

	/* created is unset if IF NOT EXISTS found it */
	if (!is_view || !OidIsValid(statement.created))
		return;
	if (IsBinaryUpgrade)
		weir_late_reattach(
			statement.created, InvalidOid,
			find_option(get_options(statement.created), "late_table"));
	else if (restored && !run)
		view_restored(statement.created);
	else
		view_created(statement.created, run, !restored);
}

static void
explain(Utility *u)
{
	ExplainStmt *stmt = (ExplainStmt *) u->pstmt->utilityStmt;
	CreateTableAsStmt *ctas;
	Statement statement = {0};
	Query *query;

	query = castNode(Query, stmt->query);
	if (query->commandType != CMD_UTILITY ||
		!IsA(query->utilityStmt, CreateTableAsStmt))
	{
		run_core(u);
		return;
	}
	ctas = (CreateTableAsStmt *) query->utilityStmt;
	statement.am = our_am(ctas->into->accessMethod);
	if (!OidIsValid(statement.am))
	{
		run_core(u);
		return;
	}
	if (statement.am == weir_catalog_continuous_am())
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("cannot explain the creation of continuous view \"%s\"",
						ctas->into->rel->relname),
				 errhint("Create it and use weir.explain(), or explain its "
						 "query.")));

	stmt = (ExplainStmt *) own_statement(u);
	ctas = (CreateTableAsStmt *) castNode(Query, stmt->query)->utilityStmt;
	statement.options = take_options(statement.am, &ctas->into->options, false);
	run_core_as(u, &statement);
}


/* ---- ALTER TABLE, ALTER MATERIALIZED VIEW ---- */

/* What an ALTER of a stream or continuous view comes to. */
typedef struct Alter
{
	Oid relid;
	Oid am;			   /* whose options it has, before and, unless it
								 * leaves, after */
	bool entering;	   /* becomes a stream */
	bool leaving;	   /* was a stream */
	bool core_options; /* changes options of core's */
	bool our_options;
	Datum before; /* our stored options */
	Datum after;
} Alter;

/* Sort stored options into ours (returned) and core's. */
static Datum
split_options(Oid am, Datum options, Datum *core)
{
	List *rest;
	List *ours;

	*core = (Datum) 0;
	if (options == (Datum) 0)
		return (Datum) 0;
	rest = untransformRelOptions(options);
	ours = take_options(am, &rest, false);
	*core = merge_options((Datum) 0, rest, false);
	return merge_options((Datum) 0, ours, false);
}

/* Has an option of ours, also if it is reset, another value? */
static bool
option_changes(const Alter *alter, const char *name)
{
	const char *before = find_option(alter->before, name);
	const char *after = find_option(alter->after, name);

	return before == NULL ? after != NULL
						  : after == NULL || strcmp(before, after) != 0;
}

/* May this table become a stream? */
static void
check_enter_stream(Oid relid)
{
	Relation rel = table_open(relid, NoLock);
	const char *name = RelationGetRelationName(rel);

	weir_shmem_require();
	if (rel->rd_rel->relpersistence == RELPERSISTENCE_TEMP)
		ereport(ERROR, (errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
						errmsg("stream \"%s\" cannot be temporary", name),
						errdetail("Background workers could not read it."),
						errhint("Copy the rows into a stream.")));
	if (RelationGetIndexList(rel) != NIL)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("table \"%s\" cannot become a stream", name),
				 errdetail("It has indexes."),
				 errhint("Drop them, and constraints that need them, first.")));
	if (GetRelationPublications(relid) != NIL)
		ereport(ERROR, (errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
						errmsg("table \"%s\" cannot become a stream", name),
						errdetail("It is part of a publication."),
						errhint("Drop it from the publication first.")));
	table_close(rel, NoLock);
}

static void
check_leave_stream(Oid relid)
{
	List *views = weir_catalog_views_of_stream(relid);

	if (views != NIL)
		ereport(ERROR,
				(errcode(ERRCODE_DEPENDENT_OBJECTS_STILL_EXIST),
				 errmsg("cannot change the access method of stream \"%s\"",
						get_rel_name(relid)),
				 errdetail("Continuous view \"%s\" reads it.",
						   get_rel_name(linitial_oid(views))),
				 errhint("Drop the view first.")));
}

/* event_time names another column than before: is that possible? */
static void
check_event_time(Alter *alter)
{
	if (alter->entering || alter->leaving ||
		!option_changes(alter, "event_time"))
		return;
	check_no_windowed_view(alter->relid, false);

	/*
	 * The chunks' headers hold the span of the old event time, by which scans
	 * skip them.
	 */
	if (find_option(alter->before, "event_time") != NULL &&
		stream_has_rows(alter->relid))
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("cannot change the event time of stream \"%s\" because "
						"it is not empty",
						get_rel_name(alter->relid)),
				 errhint("Copy the events into a new stream, or TRUNCATE this "
						 "one first.")));
	weir_catalog_forget_trimmed_time(alter->relid);
}

/* Options of continuous views that ALTER may not touch. */
static void
check_view_options(List *options)
{
	ListCell *lc;

	foreach(lc, options)
	{
		if (strcmp(lfirst_node(DefElem, lc)->defname, "settings") == 0)
			ereport(ERROR,
					(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					 errmsg("option \"settings\" cannot be changed"),
					 errdetail("It holds the settings the view was created "
							   "under."),
					 errhint("Drop the view and create it under other "
							 "settings.")));
	}
}

/*
 * Take our options out of the commands and note their effect.  Commands left
 * without an option go; what core shall do is returned.
 */
static List *
alter_commands(Alter *alter, List *commands)
{
	List *keep = NIL;
	ListCell *lc;

	foreach(lc, commands)
	{
		AlterTableCmd *command = lfirst_node(AlterTableCmd, lc);
		List *defs;
		List *ours;
		bool reset = command->subtype == AT_ResetRelOptions;

		if (command->subtype == AT_AddInherit)
			check_inherits(list_make1(command->def));
		if ((command->subtype != AT_SetRelOptions && !reset) || alter->leaving)
		{
			keep = lappend(keep, command);
			continue;
		}
		defs = castNode(List, command->def);
		ours = take_options(alter->am, &defs, reset);
		if (ours != NIL)
		{
			alter->our_options = true;
			if (alter->am == weir_catalog_continuous_am())
				check_view_options(ours);
			alter->after = merge_options(alter->after, ours, reset);
			command->def = (Node *) defs;
		}
		if (defs != NIL || ours == NIL)
		{
			alter->core_options = true;
			keep = lappend(keep, command);
		}
	}
	return keep;
}

/*
 * Is this ALTER ours?  Resolves the name with core's lock and the permission
 * check if it is.
 */
static bool
alter_is_ours(AlterTableStmt *stmt, Alter *alter)
{
	Oid target = InvalidOid; /* AM it shall get; ours */
	bool changes_am = false;
	LOCKMODE lockmode;
	bool is_stream;
	bool is_view;
	ListCell *lc;

	memset(alter, 0, sizeof(Alter));
	if (!OidIsValid(weir_catalog_stream_am()) ||
		(stmt->objtype != OBJECT_TABLE && stmt->objtype != OBJECT_MATVIEW))
		return false;
	alter->relid = RangeVarGetRelid(stmt->relation, NoLock, true);
	if (!OidIsValid(alter->relid))
		return false;

	lockmode = AlterTableGetLockLevel(stmt->cmds);
	foreach(lc, stmt->cmds)
	{
		AlterTableCmd *command = lfirst_node(AlterTableCmd, lc);

		if (command->subtype == AT_SetAccessMethod)
		{
			changes_am = true;
			target = our_am(command->name);
		}
		else if (command->subtype == AT_SetRelOptions ||
				 command->subtype == AT_ResetRelOptions)
		{
			ListCell *lc2;

			/* writers must not see it change under their hands */
			foreach(lc2, castNode(List, command->def))
				if (strcmp(lfirst_node(DefElem, lc2)->defname, "event_time") ==
					0)
					lockmode = AccessExclusiveLock;
		}
	}

	is_stream = weir_catalog_is_stream_oid(alter->relid);
	is_view = weir_catalog_is_continuous_oid(alter->relid);
	if (!is_stream && !is_view && !OidIsValid(target))
		return false;

	PreventCommandDuringRecovery("ALTER TABLE"); /* no such lock there */
	alter->relid = RangeVarGetRelidExtended(stmt->relation, lockmode, 0,
											RangeVarCallbackOwnsRelation, NULL);
	is_stream = weir_catalog_is_stream_oid(alter->relid);
	is_view = weir_catalog_is_continuous_oid(alter->relid);

	if (changes_am && (is_view || target == weir_catalog_continuous_am()))
	{
		if (is_view && target == weir_catalog_continuous_am())
			return false; /* no change */
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("cannot change the access method of \"%s\"",
						get_rel_name(alter->relid)),
				 errdetail("A continuous view is made by CREATE MATERIALIZED "
						   "VIEW only, and stays one."),
				 errhint("Create another materialized view.")));
	}
	if (!is_stream && !is_view &&
		get_rel_relkind(alter->relid) != RELKIND_RELATION)
		return false; /* core says why not */

	alter->am =
		is_view ? weir_catalog_continuous_am() : weir_catalog_stream_am();
	alter->entering = !is_stream && target == weir_catalog_stream_am();
	alter->leaving = is_stream && changes_am && !OidIsValid(target);
	return is_stream || is_view || alter->entering;
}

static void
alter_table(Utility *u)
{
	AlterTableStmt *stmt = (AlterTableStmt *) u->pstmt->utilityStmt;
	Statement statement = {0};
	Alter alter;
	Datum core;

	statement.alters = true;
	if (!alter_is_ours(stmt, &alter))
	{
		if (!OidIsValid(weir_catalog_stream_am()))
			run_core(u);
		else
		{
			ListCell *lc;

			foreach(lc, stmt->cmds)
				if (lfirst_node(AlterTableCmd, lc)->subtype == AT_AddInherit)
					check_inherits(
						list_make1(lfirst_node(AlterTableCmd, lc)->def));
			run_core_as(u, &statement);
			after_command();
		}
		return;
	}

	stmt = (AlterTableStmt *) own_statement(u);
	qualify(stmt->relation, alter.relid);
	if (alter.entering)
		check_enter_stream(alter.relid);
	if (alter.leaving)
	{
		check_leave_stream(alter.relid);
		(void) weir_catalog_unset_stream_end(alter.relid);
	}
	alter.before = split_options(alter.am, get_options(alter.relid), &core);
	alter.after = alter.leaving ? (Datum) 0 : alter.before;
	stmt->cmds = alter_commands(&alter, stmt->cmds);
	if (alter.our_options && alter.am == weir_catalog_stream_am())
		check_event_time(&alter);

	if (alter.before != (Datum) 0 && (alter.core_options || alter.leaving))
		put_options(alter.relid, core);
	if (stmt->cmds != NIL)
	{
		if (alter.entering)
		{
			statement.entering = alter.relid;
			if (alter.after != (Datum) 0)
				statement.options = untransformRelOptions(alter.after);
		}
		run_core_as(u, &statement);
		/* what it was when it was a stream before does not count */
		if (alter.entering)
			truncated_at_commit = append_oid(truncated_at_commit, alter.relid);
	}
	else
	{
		check_may_write("ALTER TABLE");
		if (u->qc)
			SetQueryCompletion(u->qc, CreateCommandTag((Node *) stmt), 0);
	}

	CommandCounterIncrement();
	if (alter.our_options || (alter.core_options && alter.after != (Datum) 0))
	{
		Datum now;

		(void) split_options(alter.am, get_options(alter.relid), &now);
		if (alter.after != (Datum) 0)
			now = merge_options(now, untransformRelOptions(alter.after), false);
		put_options(alter.relid, now);
	}
	after_command();
	if (alter.am == weir_catalog_stream_am() && !alter.leaving)
		validate_stream(alter.relid);
	if (alter.am == weir_catalog_stream_am() && alter.our_options &&
		!alter.entering && !alter.leaving &&
		option_changes(&alter, "event_time"))
		check_no_windowed_view(alter.relid, true);
	if (alter.am == weir_catalog_continuous_am() && alter.our_options &&
		!IsBinaryUpgrade)
	{
		WeirViewPlan *plan =
			plan_view(alter.relid, owner_of(alter.relid), false, false);

		validate_view(alter.relid, plan);
		if (option_changes(&alter, "late_table"))
			set_late_table(alter.relid, plan,
						   find_option(alter.after, "late_table"));
	}
	wake_at_commit = true;
}


/* ---- REFRESH ---- */

/* Is the generation that answers lost, or the one that was to replace it? */
static bool
view_is_lost(Oid view, const WeirWish *wish)
{
	WeirPositionRow row;

	return (weir_catalog_position_get(view, -1, NULL, &row, NULL) &&
			row.failed_resumes == WEIR_LOST) ||
		   (weir_catalog_position_get(view, wish->generation, NULL, &row,
									  NULL) &&
			row.failed_resumes == WEIR_LOST);
}

static char *
window_end_text(const WeirViewPlan *plan, int64 end)
{
	return DatumGetCString(DirectFunctionCall1(
		plan->window.is_timestamptz ? timestamptz_out : timestamp_out,
		TimestampGetDatum(end)));
}

/*
 * A view that has counted events that are gone: windows that hold none of them
 * can be rebuilt.  They all end after any that holds some, so those stay, if
 * nothing more can come into them.  Returns the last end of what stays.
 */
static int64
rebuilt_after(Oid view, const WeirViewPlan *plan, const WeirWish *wish,
			  int64 trimmed_time)
{
	const WeirWindow *w = &plan->window;
	WeirPositionRow row;
	WeirSecure secure;
	int64 through;

	if (wish->since == WEIR_SINCE_LOST || trimmed_time == WEIR_NO_TIME ||
		trimmed_time == PG_INT64_MAX || w->kind == WEIR_WINDOW_NONE ||
		weir_window_is_span(w) || w->by_arrival ||
		!weir_flow_shows_window(plan))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("cannot refresh continuous view \"%s\"",
						get_rel_name(view)),
				 errdetail("It has counted events that stream \"%s\" does not "
						   "hold any more.",
						   get_rel_name(plan->stream)),
				 errhint("To begin anew from the events that are left, use "
						 "REFRESH MATERIALIZED VIEW ... WITH NO DATA first.")));

	weir_secure_enter(&secure, plan->owner,
					  weir_catalog_view_options(view)->settings);
	through = weir_window_through(w, trimmed_time);
	weir_secure_leave(&secure);
	if (!weir_catalog_position_get(view, -1, NULL, &row, NULL) ||
		row.closed_before < through)
		ereport(
			ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("cannot refresh continuous view \"%s\" yet",
					get_rel_name(view)),
			 errdetail("Stream \"%s\" does not hold all events of windows "
					   "that end at %s or before, and they are not all final.",
					   get_rel_name(plan->stream),
					   window_end_text(plan, through)),
			 errhint("Wait until the watermark has passed that by "
					 "allowed_lateness, call weir.checkpoint(), and try "
					 "again.")));
	return through;
}

static void
say_what_stays(Oid view, const WeirViewPlan *plan, int64 through)
{
	Relation rel = table_open(view, NoLock);
	WeirSecure secure;
	int64 count;

	weir_secure_enter(&secure, plan->owner,
					  weir_catalog_view_options(view)->settings);
	count = weir_flow_count_final(plan, rel, through);
	weir_secure_leave(&secure);
	table_close(rel, NoLock);
	ereport(NOTICE,
			(errmsg_plural("continuous view \"%s\" keeps %lld final row as it "
						   "is",
						   "continuous view \"%s\" keeps %lld final rows as "
						   "they are",
						   (unsigned long) count, get_rel_name(view),
						   (long long) count),
			 errdetail("Stream \"%s\" does not hold all events of windows that "
					   "end at %s or before. Windows that end later are "
					   "rebuilt.",
					   get_rel_name(plan->stream),
					   window_end_text(plan, through))));
}

/* Make a view that was stopped or runs (re)start from the retained log. */
static void
start_view(Oid view)
{
	WeirViewPlan *plan = plan_view(view, owner_of(view), false, true);
	WeirWish wish;
	WeirNumber trimmed;
	int64 trimmed_time;
	Relation rel;
	bool adopted = false; /* starts from what a restore has brought */

	weir_log_lock_history(plan->stream, false);
	trimmed = weir_catalog_trimmed(plan->stream, &trimmed_time);
	if (!weir_catalog_wish_get(view, &wish))
	{
		wish.view = view;
		wish.generation = 1;
		wish.resumes = 0;
		wish.kept_through = PG_INT64_MIN;
	}
	else if (wish.wanted == WEIR_WANT_STOP)
	{
		const char *late = find_option(get_options(view), "late_table");

		/* one from a dump has not been judged yet */
		validate_view(view, plan);
		if (late != NULL && !OidIsValid(weir_late_table(view)))
			set_late_table(view, plan, late);
		adopted = weir_portal_adopt(plan, &wish);
	}
	else
	{
		wish.kept_through = PG_INT64_MIN;
		/* one that is lost can have no more than what is left */
		if (wish.since != WEIR_SINCE_LOST && wish.since < trimmed &&
			view_is_lost(view, &wish))
			ereport(
				NOTICE,
				(errmsg("continuous view \"%s\" is rebuilt from the events "
						"that are left",
						get_rel_name(view)),
				 errdetail("What it has counted of events that stream \"%s\" "
						   "does not hold any more goes when the rebuild is "
						   "complete.",
						   get_rel_name(plan->stream))));
		else if (wish.since == WEIR_SINCE_LOST || wish.since < trimmed)
		{
			wish.kept_through = rebuilt_after(view, plan, &wish, trimmed_time);
			say_what_stays(view, plan, wish.kept_through);
		}

		/* the old generation answers until the new one has caught up */
		wish.generation++;
		wish.resumes++;
	}
	wish.stream = plan->stream;
	if (!adopted)
	{
		wish.wanted = WEIR_WANT_RUN;
		/* windows that stay have counted what they have */
		if (wish.kept_through == PG_INT64_MIN)
			wish.since = trimmed;
	}
	weir_catalog_wish_put(&wish);

	rel = table_open(view, NoLock);
	if (!RelationIsPopulated(rel))
	{
		SetMatViewPopulatedState(rel, true);
		CommandCounterIncrement();
	}
	table_close(rel, NoLock);
}

/* REFRESH ... WITH NO DATA: core has emptied the view; forget the rest. */
static void
stop_view(Oid view)
{
	WeirWish wish;

	weir_catalog_forget_view(view, -1);
	if (weir_catalog_wish_get(view, &wish))
	{
		wish.wanted = WEIR_WANT_STOP;
		wish.kept_through = PG_INT64_MIN;

		/* a worker that still runs the old generation cannot mistake it */
		wish.generation++;
		wish.resumes++;
		weir_catalog_wish_put(&wish);
	}
}

static void
refresh(Utility *u)
{
	RefreshMatViewStmt *stmt = (RefreshMatViewStmt *) u->pstmt->utilityStmt;
	Oid view = InvalidOid;
	Relation rel;

	if (OidIsValid(weir_catalog_continuous_am()))
		view = RangeVarGetRelid(stmt->relation, NoLock, true);
	if (!OidIsValid(view) || !weir_catalog_is_continuous_oid(view))
	{
		run_core(u);
		return;
	}

	check_may_write("REFRESH MATERIALIZED VIEW");
	view = RangeVarGetRelidExtended(stmt->relation,
									stmt->skipData ? AccessExclusiveLock
												   : ShareUpdateExclusiveLock,
									0, RangeVarCallbackMaintainsTable, NULL);
	stmt = (RefreshMatViewStmt *) own_statement(u);
	qualify(stmt->relation, view);
	if (!weir_catalog_is_continuous_oid(view))
	{
		run_core(u); /* the name got another relation just now */
		return;
	}
	if (stmt->concurrent)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("cannot refresh continuous view \"%s\" concurrently",
						get_rel_name(view)),
				 errhint("Leave out CONCURRENTLY: REFRESH returns at once, and "
						 "the old rows answer until the new ones are there.")));
	weir_shmem_require();
	rel = table_open(view, NoLock);
	CheckTableNotInUse(rel, "REFRESH MATERIALIZED VIEW");
	table_close(rel, NoLock);

	if (stmt->skipData)
	{
		run_core(u);
		stop_view(view);
	}
	else
	{
		start_view(view);
		if (u->qc)
			SetQueryCompletion(u->qc, CMDTAG_REFRESH_MATERIALIZED_VIEW, 0);
	}
	wake_at_commit = true;
}


/* ---- TRUNCATE ---- */

/* A view that TRUNCATE waits for: asked for a checkpoint. */
typedef struct CheckpointWait
{
	Oid view;
	uint32 wanted;
} CheckpointWait;

static bool
checkpoint_is_done(void *arg)
{
	CheckpointWait *wait = arg;
	WeirViewShared *v = weir_shmem_view(wait->view);

	if (v == NULL ||
		pg_atomic_read_u32(&v->status) >= (uint32) WEIR_VIEW_PAUSED)
		return true; /* nobody will do it */
	return (int32) (pg_atomic_read_u32(&v->done_checkpoint) - wait->wanted) >=
		   0;
}

static int
checkpoint_worker(void *arg)
{
	CheckpointWait *wait = arg;
	WeirViewShared *v = weir_shmem_view(wait->view);

	return v == NULL ? 0 : v->worker_pid;
}

/* Has the view this stream's log, up to number, on disk, or no need of it? */
static bool
view_has_durably(Oid view, WeirNumber number)
{
	WeirPosition position;

	return !weir_catalog_needs_log(view, &position) || position >= number;
}

/* The views of a stream that run, or shall: all but stopped ones. */
static List *
dependent_views(Oid stream)
{
	List *result = NIL;
	ListCell *lc;

	foreach(lc, weir_catalog_views_of_stream(stream))
	{
		WeirWish wish;

		if (weir_catalog_wish_get(lfirst_oid(lc), &wish) &&
			wish.wanted != WEIR_WANT_STOP)
			result = lappend_oid(result, wish.view);
	}
	return result;
}

/*
 * Before TRUNCATE takes its locks: what views have counted in memory only
 * would be lost in a crash once the log is gone, so have it written.
 */
static void
checkpoint_views_of(Oid stream)
{
	WeirNumber number = weir_order_committed(stream);
	ListCell *lc;

	foreach(lc, dependent_views(stream))
	{
		CheckpointWait wait;
		WeirViewShared *v;

		wait.view = lfirst_oid(lc);
		v = weir_shmem_view(wait.view);
		if (v == NULL || pg_atomic_read_u64(&v->position) < number ||
			view_has_durably(wait.view, number))
			continue;
		wait.wanted = pg_atomic_add_fetch_u32(&v->want_checkpoint, 1);
		weir_shmem_wake_workers(MyDatabaseId, false);
		(void) weir_stats_wait(checkpoint_is_done, &wait,
							   TRUNCATE_CHECKPOINT_WAIT, checkpoint_worker);
	}
}

/*
 * A stream that had ended takes events again.  Its views do not: what they have
 * made final stays so.
 */
static void
begin_anew(Oid stream)
{
	if (!weir_catalog_unset_stream_end(stream))
		return;
	if (dependent_views(stream) != NIL)
		ereport(NOTICE,
				(errmsg("stream \"%s\" begins anew, its continuous views do "
						"not",
						get_rel_name(stream)),
				 errdetail("Every time window of theirs is final: what comes "
						   "now is late."),
				 errhint("REFRESH MATERIALIZED VIEW ... WITH NO DATA, then "
						 "REFRESH MATERIALIZED VIEW.")));
}

static void
truncate_tables(Utility *u)
{
	TruncateStmt *stmt = (TruncateStmt *) u->pstmt->utilityStmt;
	Statement statement = {0};
	ListCell *lc;

	/* on a standby core refuses it */
	if (!OidIsValid(weir_catalog_stream_am()) || weir_shared == NULL ||
		RecoveryInProgress())
	{
		run_core(u);
		return;
	}

	foreach(lc, stmt->relations)
	{
		Oid stream = RangeVarGetRelid(lfirst_node(RangeVar, lc), NoLock, true);

		if (OidIsValid(stream) && weir_catalog_is_stream_oid(stream) &&
			pg_class_aclcheck(stream, GetUserId(), ACL_TRUNCATE) == ACLCHECK_OK)
			checkpoint_views_of(stream);
	}

	run_core_as(u, &statement);
	if (statement.truncated != NIL)
		weir_debug_point("truncate-locked");

	/*
	 * The streams are locked now, and every commit into them is published (a
	 * commit publishes before it gives up its locks) but for that of a prepared
	 * transaction, which is adopted later: this is the truth.  An error brings
	 * the old files back.
	 */
	foreach(lc, statement.truncated)
	{
		Oid stream = lfirst_oid(lc);
		WeirNumber number = weir_order_committed(stream);
		bool unnumbered = weir_log_has_unnumbered(stream);
		TimestampTz newest;
		ListCell *lc2;

		foreach(lc2, dependent_views(stream))
		{
			Oid view = lfirst_oid(lc2);

			/* one that is lost needs nothing, numbered or not */
			if (!view_has_durably(view, unnumbered ? PG_UINT64_MAX : number))
				ereport(
					ERROR,
					(errcode(ERRCODE_OBJECT_IN_USE),
					 errmsg("cannot truncate stream \"%s\"",
							get_rel_name(stream)),
					 errdetail("Continuous view \"%s\" has not consumed all "
							   "of its events.",
							   get_rel_name(view)),
					 errhint("Call weir.wait_for() first; a paused or "
							 "failed view must be resumed or dropped.")));
		}
		newest = weir_stream_truncated_time(stream);
		weir_catalog_set_trimmed(stream, number, newest,
								 newest != WEIR_NO_TIME);
		begin_anew(stream);
		truncated_at_commit = append_oid(truncated_at_commit, stream);
		weir_debug_point("truncate-marked");
	}
}


/* ---- publications, COPY ---- */

static void
check_publication(List *objects)
{
	ListCell *lc;

	if (!OidIsValid(weir_catalog_stream_am()))
		return;
	foreach(lc, objects)
	{
		PublicationObjSpec *object = lfirst_node(PublicationObjSpec, lc);
		Oid relid;

		if (object->pubtable == NULL)
			continue;
		relid = RangeVarGetRelid(object->pubtable->relation, NoLock, true);
		if (OidIsValid(relid) && weir_catalog_is_stream_oid(relid))
			ereport(
				ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("cannot publish stream \"%s\"", get_rel_name(relid)),
				 errdetail("Its events are not written as rows that logical "
						   "decoding could read."),
				 errhint("Publish a table that a trigger on the stream "
						 "fills.")));
	}
}

/*
 * COPY v TO: some servers refuse it, others would copy the final rows only.
 * It means COPY (SELECT ... FROM v) TO.
 */
static void
copy(Utility *u)
{
	CopyStmt *stmt = (CopyStmt *) u->pstmt->utilityStmt;
	Oid relid = InvalidOid;

	if (!stmt->is_from && stmt->relation != NULL &&
		OidIsValid(weir_catalog_continuous_am()))
		relid = RangeVarGetRelid(stmt->relation, NoLock, true);
	if (OidIsValid(relid) && weir_catalog_is_continuous_oid(relid))
	{
		SelectStmt *select = makeNode(SelectStmt);
		List *columns = NIL;
		ListCell *lc;

		stmt = (CopyStmt *) own_statement(u);
		foreach(lc, stmt->attlist)
			columns = lappend(columns, list_make1(lfirst(lc)));
		if (columns == NIL)
			columns = list_make1(list_make1(makeNode(A_Star)));
		foreach(lc, columns)
		{
			ColumnRef *column = makeNode(ColumnRef);
			ResTarget *target = makeNode(ResTarget);

			column->fields = lfirst_node(List, lc);
			column->location = -1;
			target->val = (Node *) column;
			target->location = -1;
			select->targetList = lappend(select->targetList, target);
		}
		select->fromClause = list_make1(stmt->relation);
		stmt->query = (Node *) select;
		stmt->relation = NULL;
		stmt->attlist = NIL;
	}
	run_core(u);
}


/* ---- databases ---- */

/*
 * Keep workers out of a database until the end of the transaction.  allowed:
 * the caller's user may do what he asks for; if not, core will say so, and
 * must be the first to.  Inside a transaction block core refuses, too.
 */
static void
bar_database(Utility *u, Oid db, bool allowed)
{
	if (!OidIsValid(db) || !allowed || weir_shared == NULL ||
		IsInTransactionBlock(u->context == PROCESS_UTILITY_TOPLEVEL))
		return;
	if (OidIsValid(barred))
		elog(ERROR, "unexpected second bar on a database");

	/* first: an interrupted wait for the workers must lift it again */
	barred = db;
	weir_launcher_bar(db);
}

static bool
may_copy_database(Oid db)
{
	HeapTuple tuple;
	bool allowed = superuser();

	tuple = SearchSysCache1(AUTHOID, ObjectIdGetDatum(GetUserId()));
	if (HeapTupleIsValid(tuple))
	{
		allowed = allowed || ((Form_pg_authid) GETSTRUCT(tuple))->rolcreatedb;
		ReleaseSysCache(tuple);
	}
	if (!allowed)
		return false;

	allowed = weir_owns_database(db, GetUserId());
	tuple = SearchSysCache1(DATABASEOID, ObjectIdGetDatum(db));
	if (HeapTupleIsValid(tuple))
	{
		allowed =
			allowed || ((Form_pg_database) GETSTRUCT(tuple))->datistemplate;
		ReleaseSysCache(tuple);
	}
	return allowed;
}

static void
create_database(Utility *u)
{
	CreatedbStmt *stmt = (CreatedbStmt *) u->pstmt->utilityStmt;
	const char *template = "template1";
	ListCell *lc;
	Oid db;

	foreach(lc, stmt->options)
	{
		DefElem *def = lfirst_node(DefElem, lc);

		if (strcmp(def->defname, "template") == 0 && def->arg != NULL)
			template = defGetString(def);
	}
	db = get_database_oid(template, true);
	bar_database(u, db, OidIsValid(db) && may_copy_database(db));
	run_core(u);

	/* the copy may have the extension */
	look_at_commit = get_database_oid(stmt->dbname, true);
}

static void
change_database(Utility *u, const char *name)
{
	Oid db = get_database_oid(name, true);

	bar_database(u, db,
				 OidIsValid(db) && db != MyDatabaseId &&
					 weir_owns_database(db, GetUserId()));
	run_core(u);
}

static void
alter_database(Utility *u)
{
	AlterDatabaseStmt *stmt = (AlterDatabaseStmt *) u->pstmt->utilityStmt;
	ListCell *lc;

	foreach(lc, stmt->options)
	{
		if (strcmp(lfirst_node(DefElem, lc)->defname, "tablespace") == 0)
		{
			change_database(u, stmt->dbname);
			return;
		}
	}
	run_core(u);
}


/* ---- triggers ---- */

static void
check_trigger_rights(const RangeVar *rv, Oid relid, Oid oldrelid, void *arg)
{
	if (!OidIsValid(relid) || !weir_catalog_is_stream_oid(relid) ||
		object_ownercheck(RelationRelationId, relid, GetUserId()))
		return;
	ereport(ERROR,
			(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
			 errmsg("must be owner of stream \"%s\"", rv->relname),
			 errdetail("A trigger runs with the rights of whoever writes to "
					   "the stream."),
			 errhint("The privilege TRIGGER on a stream is that of creating "
					 "continuous views over it.")));
}

/*
 * TRIGGER on a stream is granted to those who may attach views.  It does not
 * let them run their code as every writer, nor queue for the lock.
 */
static void
create_trigger(Utility *u)
{
	CreateTrigStmt *stmt;
	Oid relid;

	if (OidIsValid(weir_catalog_stream_am()))
	{
		stmt = (CreateTrigStmt *) own_statement(u);
		relid = RangeVarGetRelidExtended(stmt->relation, ShareRowExclusiveLock,
										 0, check_trigger_rights, NULL);
		qualify(stmt->relation, relid);
	}
	run_core(u);
}


/* ---- the hook ---- */

static void
transaction(Utility *u)
{
	TransactionStmt *stmt = (TransactionStmt *) u->pstmt->utilityStmt;
	bool commit_prepared = stmt->kind == TRANS_STMT_COMMIT_PREPARED;
	bool rollback_prepared = stmt->kind == TRANS_STMT_ROLLBACK_PREPARED;

	if (commit_prepared && weir_shared != NULL &&
		OidIsValid(weir_catalog_stream_am()))
		weir_stream_before_commit_prepared();
	run_core(u);
	if ((!commit_prepared && !rollback_prepared) || weir_shared == NULL)
		return;

	/* number its events, or forget them; if that fails, a worker does it */
	weir_debug_point("prepared-ended");
	if (OidIsValid(weir_catalog_stream_am()))
		weir_stream_adopt_prepared();
	if (rollback_prepared)
		return;

	/* it may have changed wishes */
	look_at_commit = MyDatabaseId;
	wake_at_commit = true;
}

static void
utility(PlannedStmt *pstmt, const char *query_string, bool read_only_tree,
		ProcessUtilityContext context, ParamListInfo params,
		QueryEnvironment *query_env, DestReceiver *dest, QueryCompletion *qc)
{
	Node *stmt = pstmt->utilityStmt;
	Utility u = {pstmt,	 query_string, read_only_tree, context,
				 params, query_env,	   dest,		   qc};

	switch (nodeTag(stmt))
	{
		case T_TransactionStmt:
			transaction(&u);
			break;
		case T_CreateStmt:
			create_table(&u);
			break;
		case T_CreateTableAsStmt:
			create_table_as(&u);
			break;
		case T_ExplainStmt:
			explain(&u);
			break;
		case T_AlterTableStmt:
			alter_table(&u);
			break;
		case T_RenameStmt:
			if (((RenameStmt *) stmt)->renameType == OBJECT_DATABASE)
				change_database(&u, ((RenameStmt *) stmt)->subname);
			else
			{
				run_core(&u);
				after_command();
				if (((RenameStmt *) stmt)->renameType == OBJECT_SCHEMA)
					schema_renamed();
			}
			break;
		case T_AlterObjectSchemaStmt:
		case T_ReassignOwnedStmt:
			run_core(&u);
			after_command();
			break;
		case T_RefreshMatViewStmt:
			refresh(&u);
			break;
		case T_TruncateStmt:
			truncate_tables(&u);
			break;
		case T_CreateTrigStmt:
			create_trigger(&u);
			break;
		case T_CopyStmt:
			copy(&u);
			break;
		case T_CreatePublicationStmt:
			check_publication(((CreatePublicationStmt *) stmt)->pubobjects);
			run_core(&u);
			break;
		case T_AlterPublicationStmt:
			if (((AlterPublicationStmt *) stmt)->action != AP_DropObjects)
				check_publication(((AlterPublicationStmt *) stmt)->pubobjects);
			run_core(&u);
			break;
		case T_CreatedbStmt:
			create_database(&u);
			break;
		case T_DropdbStmt:
			change_database(&u, ((DropdbStmt *) stmt)->dbname);
			break;
		case T_AlterDatabaseStmt:
			alter_database(&u);
			break;
		default:
			run_core(&u);
			break;
	}
}


/* ---- the end of the transaction ---- */

/* Neither allocates nor raises. */
static void
committed(void)
{
	ListCell *lc;

	if (weir_shared == NULL)
		return;

	if (wake_at_commit || truncated_at_commit != NIL)
		weir_debug_point_critical("ddl-committed");
	foreach(lc, truncated_at_commit)
	{
		WeirStreamShared *s = weir_shmem_stream(lfirst_oid(lc), false);

		if (s == NULL)
			continue;

		/* W is unset: whoever needs it next scans what the log holds now */
		LWLockAcquire(&weir_shared->order_lock, LW_EXCLUSIVE);
		s->mark.watermark = WEIR_NO_TIME;
		s->watermark_valid = false;
		pg_atomic_write_u32(&s->ended, WEIR_END_UNKNOWN);
		LWLockRelease(&weir_shared->order_lock);
	}
	foreach(lc, dropped_at_commit)
		weir_shmem_stream_free(MyDatabaseId, lfirst_oid(lc));
	if (OidIsValid(look_at_commit))
	{
		WeirDatabaseShared *db = weir_shmem_database(look_at_commit, true);

		if (db != NULL)
		{
			LWLockAcquire(&weir_shared->directory_lock, LW_EXCLUSIVE);
			if (db->db == look_at_commit)
			{
				db->wants_look = true;
				db->looks_wanted++;
			}
			LWLockRelease(&weir_shared->directory_lock);
		}
		weir_shmem_wake_launcher();
	}
	if (wake_at_commit)
		weir_shmem_wake_workers(MyDatabaseId, true);
}

static void
at_xact_end(XactEvent event, void *arg)
{
	switch (event)
	{
		case XACT_EVENT_PRE_COMMIT:
		case XACT_EVENT_PRE_PREPARE:
			weir_portal_pre_commit(event == XACT_EVENT_PRE_PREPARE);
			return;
		case XACT_EVENT_COMMIT:
			committed();
			break;
		case XACT_EVENT_ABORT:
		case XACT_EVENT_PREPARE: /* COMMIT PREPARED wakes them */
			break;
		default:
			return;
	}

	if (OidIsValid(barred))
	{
		Oid db = barred;

		barred = InvalidOid;
		weir_launcher_unbar(db);
	}
	weir_portal_at_end();
	wake_at_commit = false;
	look_at_commit = InvalidOid;
	truncated_at_commit = NIL;
	dropped_at_commit = NIL;
	dropped_levels = NIL;
	renames = NIL;
	new_owners = NIL;
	old_owners = NIL;
	moved = NIL;
}

static void
at_subxact_end(SubXactEvent event, SubTransactionId mine,
			   SubTransactionId parent, void *arg)
{
	int level = GetCurrentTransactionNestLevel();

	if (event == SUBXACT_EVENT_COMMIT_SUB)
	{
		ListCell *lc;

		foreach(lc, dropped_levels)
			lfirst_int(lc) = Min(lfirst_int(lc), level - 1);
	}

	/* notes of a command that failed; to wake somebody for nothing is fine */
	if (event == SUBXACT_EVENT_ABORT_SUB)
	{
		/* levels grow along the list */
		while (dropped_levels != NIL && llast_int(dropped_levels) >= level)
		{
			dropped_at_commit = list_delete_last(dropped_at_commit);
			dropped_levels = list_delete_last(dropped_levels);
		}
		weir_portal_at_subabort();
		renames = NIL;
		new_owners = NIL;
		old_owners = NIL;
		moved = NIL;
	}
}

void
weir_ddl_init(void)
{
	prev_utility = ProcessUtility_hook;
	ProcessUtility_hook = utility;
	prev_object_access = object_access_hook;
	object_access_hook = object_access;
	RegisterXactCallback(at_xact_end, NULL);
	RegisterSubXactCallback(at_subxact_end, NULL);
}
