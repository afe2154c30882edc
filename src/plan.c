/*-------------------------------------------------------------------------
 *
 * plan.c
 *	  View query -> flow plan, or a refusal with errcode and hint.
 *
 * The accepted shapes are a closed list: whatever is not known to give the
 * rows of the batch query is refused when the view is created.  Three looks:
 *
 *	1. the analysed query: clauses that have no streaming form;
 *	2. the rewritten input query, subqueries, CTEs and expanded plain views
 *	   included: what FROM holds, row security, functions whose result is not a
 *	   function of the event;
 *	3. the planned input query: it may hold nothing but the scan of the one
 *	   stream and projections over it.  The planner decides what "pulls up", so
 *	   it is asked and not imitated.
 *
 * The split.  The input query computes, per event, the GROUP BY expressions,
 * then each distinct aggregate argument and filter.  The final part is the
 * target list and HAVING with every grouping expression replaced by
 * Var(1, key) and every aggregate by Var(1, nkeys + aggregate); a grouping
 * expression is found inside a larger one by equal() on subtrees, top down, as
 * parse analysis did when it accepted the query.
 *
 * Windows are recognised on the planned target list, where the window function
 * has been inlined to calls of its C scalars and subqueries have been pulled
 * up: the column that reaches the scalar is then bare or it is not.  Of those
 * functions that give several windows to a row, or one that depends on other
 * rows, the input query calls a form that gives the first window only; so
 * columns of the window may stand there nowhere but in GROUP BY.  Conditions
 * in WHERE on nothing but columns of windows that overlap go to HAVING, where
 * they mean the same.  now() as the time of a window becomes the arrival of the
 * event, weir.arrival(), in the input query; the planner takes that for a
 * constant of the query, so conditions on it are moved too, or refused.  Of
 * several date_trunc() and date_bin() keys the earliest window end counts; only
 * windows that nest are accepted together, so that it is always the finest
 * one's, and the others are ordinary keys.
 *
 * Everything here runs inside weir_secure_enter(owner): rewriting and planning
 * call user functions (support functions, constant folding).
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/nbtree.h"
#include "access/relation.h"
#include "access/sysattr.h"
#include "access/table.h"
#include "catalog/dependency.h"
#include "catalog/pg_aggregate.h"
#include "catalog/pg_inherits.h"
#include "catalog/pg_operator.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_type.h"
#include "commands/extension.h"
#include "executor/executor.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/clauses.h"
#include "optimizer/optimizer.h"
#include "parser/parse_agg.h"
#include "parser/parse_func.h"
#include "parser/parse_oper.h"
#include "parser/parse_relation.h"
#include "parser/parsetree.h"
#include "parser/scansup.h"
#include "pgtime.h"
#include "rewrite/prs2lock.h"
#include "rewrite/rewriteDefine.h"
#include "rewrite/rewriteHandler.h"
#include "tcop/tcopprot.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/datetime.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/regproc.h"
#include "utils/rls.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"
#include "utils/typcache.h"

#include "catalog.h"
#include "compat.h"
#include "plan.h"
#include "window_rows.h"

/* The rangetable index of the row of keys and aggregates in the final part. */
#define FINAL_VARNO 1

/* One level of the query being looked at, for CTE references. */
typedef struct QueryLevel
{
	Query *query;
	struct QueryLevel *up;
} QueryLevel;

/* What FROM, at all levels, has been found to hold. */
typedef struct FromItems
{
	List *relations; /* of RangeTblEntry, kind RTE_RELATION */
	List *queries;	 /* the Query of each of them */
	int nwindows;	 /* window functions */
} FromItems;

/* What the planned input query has been found to hold. */
typedef struct PlanFacts
{
	PlannedStmt *stmt;
	Oid stream;
	Bitmapset *columns; /* of the stream; 0 is the whole row */
} PlanFacts;

/* A GROUP BY key that is a window over event time. */
typedef struct KeyWindow
{
	bool found;
	bool scalar; /* tumble()'s, else date_bin, date_trunc */
	FuncExpr *call;
	WeirWindow window;
} KeyWindow;

typedef struct FinalContext
{
	WeirViewPlan *plan;
	List *key_exprs;
	List *key_refs; /* ressortgroupref of each, for GROUPING() */
} FinalContext;

/*
 * Functions of the clock, the session or the transaction.  The planner's
 * volatility is not enough: most of these are STABLE.  now() as the time of a
 * window is not meant: see is_now().
 */
static const Oid session_functions[] = {
	F_NOW,
	F_TRANSACTION_TIMESTAMP,
	F_STATEMENT_TIMESTAMP,
	F_CLOCK_TIMESTAMP,
	F_TIMEOFDAY,
	F_AGE_TIMESTAMPTZ,
	F_AGE_TIMESTAMP,
	F_AGE_XID,
	F_MXID_AGE,
	/* a time of day has the UTC offset that its zone has today */
	F_TIMETZ_TIME,
	F_TIMEZONE_TEXT_TIMETZ,
#ifdef F_TIMEZONE_TIMETZ
	F_TIMEZONE_TIMETZ,
#endif
	F_CURRENT_USER,
	F_SESSION_USER,
#ifdef F_SYSTEM_USER
	F_SYSTEM_USER,
#endif
	F_GETPGUSERNAME,
	F_CURRENT_DATABASE,
	F_CURRENT_SCHEMA,
	F_CURRENT_SCHEMAS,
	F_CURRENT_QUERY,
	F_CURRENT_SETTING_TEXT,
	F_CURRENT_SETTING_TEXT_BOOL,
	F_PG_BACKEND_PID,
	F_PG_CLIENT_ENCODING,
	F_PG_MY_TEMP_SCHEMA,
	F_PG_IS_OTHER_TEMP_SCHEMA,
	F_PG_TRIGGER_DEPTH,
	F_PG_POSTMASTER_START_TIME,
	F_PG_CONF_LOAD_TIME,
	F_TXID_CURRENT,
	F_TXID_CURRENT_IF_ASSIGNED,
	F_TXID_CURRENT_SNAPSHOT,
	F_TXID_STATUS,
	F_PG_CURRENT_XACT_ID,
	F_PG_CURRENT_XACT_ID_IF_ASSIGNED,
	F_PG_CURRENT_SNAPSHOT,
	F_PG_XACT_STATUS,
	F_PG_XACT_COMMIT_TIMESTAMP,
	F_PG_XACT_COMMIT_TIMESTAMP_ORIGIN,
	F_INET_CLIENT_ADDR,
	F_INET_CLIENT_PORT,
	F_INET_SERVER_ADDR,
	F_INET_SERVER_PORT,
};


/* ---------- functions whose result is not a function of the event ---------- */

static void
refuse_session_function(const char *name)
{
	ereport(
		ERROR,
		(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
		 errmsg("continuous view cannot use \"%s\"", name),
		 errdetail(
			 "Its result depends on the clock, the session or the transaction, not on the event."),
		 errhint(
			 "Group by a time window here, and filter by time or user when reading the view.")));
}

static void
refuse_volatile_function(Oid func)
{
	ereport(
		ERROR,
		(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
		 errmsg("continuous view cannot use volatile function %s",
				format_procedure(func)),
		 errdetail("Its result could differ when the log is replayed."),
		 errhint(
			 "Compute it in a column default of the stream, or when reading the view; or declare it STABLE or IMMUTABLE if it is.")));
}

/* The extension's own function of this name in schema weir? */
static bool
is_arrival_function(Oid func)
{
	char *name;

	if (func < FirstNormalObjectId ||
		get_func_namespace(func) != weir_catalog_schema())
		return false;
	name = get_func_name(func);
	return name != NULL && strcmp(name, "arrival") == 0;
}

static bool
is_arrival(Node *node)
{
	return node != NULL && IsA(node, FuncExpr) &&
		   is_arrival_function(((FuncExpr *) node)->funcid);
}

/* What means the time of the transaction: now() and its standard spellings. */
static bool
is_now(Node *node)
{
	if (node == NULL)
		return false;
	if (IsA(node, SQLValueFunction))
		return ((SQLValueFunction *) node)->op == SVFOP_CURRENT_TIMESTAMP;
	return IsA(node, FuncExpr) &&
		   (((FuncExpr *) node)->funcid == F_NOW ||
			((FuncExpr *) node)->funcid == F_TRANSACTION_TIMESTAMP);
}

static bool is_window_call(FuncExpr *call);

static bool
check_function(Oid func, void *context)
{
	if (is_arrival_function(func))
		refuse_session_function(format_procedure(func));
	for (int i = 0; i < lengthof(session_functions); i++)
	{
		if (func == session_functions[i])
			refuse_session_function(format_procedure(func));
	}
	if (func_volatile(func) == PROVOLATILE_VOLATILE)
		refuse_volatile_function(func);
	return false;
}

/* pg_proc calls every aggregate immutable; its parts tell the truth. */
static void
check_aggregate_functions(Oid aggregate)
{
	HeapTuple tup = SearchSysCache1(AGGFNOID, ObjectIdGetDatum(aggregate));
	Form_pg_aggregate form;
	Oid parts[5];

	if (!HeapTupleIsValid(tup))
		elog(ERROR, "cache lookup failed for aggregate %u", aggregate);
	form = (Form_pg_aggregate) GETSTRUCT(tup);
	parts[0] = form->aggtransfn;
	parts[1] = form->aggfinalfn;
	parts[2] = form->aggserialfn;
	parts[3] = form->aggdeserialfn;
	parts[4] = OidIsValid(parts[3]) ? form->aggcombinefn : InvalidOid;
	ReleaseSysCache(tup);

	for (int i = 0; i < lengthof(parts); i++)
	{
		if (OidIsValid(parts[i]))
			check_function(parts[i], NULL);
	}
}

static const char *
sql_value_function_name(SQLValueFunctionOp op)
{
	switch (op)
	{
		case SVFOP_CURRENT_DATE:
			return "current_date";
		case SVFOP_CURRENT_TIME:
		case SVFOP_CURRENT_TIME_N:
			return "current_time";
		case SVFOP_CURRENT_TIMESTAMP:
		case SVFOP_CURRENT_TIMESTAMP_N:
			return "current_timestamp";
		case SVFOP_LOCALTIME:
		case SVFOP_LOCALTIME_N:
			return "localtime";
		case SVFOP_LOCALTIMESTAMP:
		case SVFOP_LOCALTIMESTAMP_N:
			return "localtimestamp";
		case SVFOP_CURRENT_ROLE:
			return "current_role";
		case SVFOP_CURRENT_USER:
			return "current_user";
		case SVFOP_USER:
			return "user";
		case SVFOP_SESSION_USER:
			return "session_user";
		case SVFOP_CURRENT_CATALOG:
			return "current_catalog";
		case SVFOP_CURRENT_SCHEMA:
			return "current_schema";
	}
	return "unknown";
}

/* Context of check_functions_walker: the arrival may be a window's time. */
#define WINDOWS_OVER_ARRIVAL ((void *) 1)

static bool check_functions_walker(Node *node, void *context);

/* Context of errors; its frames also tell which domains are being looked at. */
static void
in_domain(void *arg)
{
	errcontext("constraint of domain %s",
			   format_type_be((Oid) (uintptr_t) arg));
}

static void
check_domain(Oid type)
{
	ErrorContextCallback frame = {.previous = error_context_stack,
								  .callback = in_domain,
								  .arg = (void *) (uintptr_t) type};
	MemoryContext cxt; /* the reference ends with it */
	DomainConstraintRef *ref;
	ListCell *lc;

	/* a constraint may come back to its own domain through a function */
	for (ErrorContextCallback *f = error_context_stack; f; f = f->previous)
		if (f->callback == in_domain && f->arg == frame.arg)
			return;
	error_context_stack = &frame;
	/* those of the domains under it, too, and planned */
	cxt = AllocSetContextCreate(CurrentMemoryContext, "weir domain",
								ALLOCSET_SMALL_SIZES);
	ref = MemoryContextAlloc(cxt, sizeof(*ref));
	InitDomainConstraintRef(type, ref, cxt, false);
	foreach(lc, ref->constraints)
		(void) check_functions_walker(
			(Node *) ((DomainConstraintState *) lfirst(lc))->check_expr, NULL);
	MemoryContextDelete(cxt);
	error_context_stack = frame.previous;
}

/*
 * Making a value of this type runs the constraints of the domains in it.  (A
 * value that the stream holds has been made when it was written.)
 */
static void
check_made_type(Oid type)
{
	TypeCacheEntry *entry;
	TupleDesc desc;

	check_stack_depth();
	if (type < FirstNormalObjectId)
		return;
	if (OidIsValid(get_element_type(type)))
	{
		check_made_type(get_element_type(type));
		return;
	}
	entry = lookup_type_cache(type, TYPECACHE_TUPDESC);
	switch (entry->typtype)
	{
		case TYPTYPE_DOMAIN:
			check_domain(type);
			check_made_type(getBaseType(type));
			break;
		case TYPTYPE_COMPOSITE:
			desc = entry->tupDesc;
			for (int i = 0; desc != NULL && i < desc->natts; i++)
				if (!TupleDescAttr(desc, i)->attisdropped)
					check_made_type(TupleDescAttr(desc, i)->atttypid);
			break;
		case TYPTYPE_RANGE:
		case TYPTYPE_MULTIRANGE:
			check_made_type(type_is_multirange(type)
								? get_range_subtype(get_multirange_range(type))
								: get_range_subtype(type));
			break;
	}
}

/* Refuses; never returns true. */
static bool
check_functions_walker(Node *node, void *context)
{
	if (node == NULL)
		return false;
	if (context == WINDOWS_OVER_ARRIVAL && IsA(node, FuncExpr) &&
		is_window_call((FuncExpr *) node) &&
		is_arrival(linitial(((FuncExpr *) node)->args)))
	{
		ListCell *lc;

		for_each_from(lc, ((FuncExpr *) node)->args, 1)
			(void) check_functions_walker(lfirst(lc), context);
		return false;
	}
	if (IsA(node, SQLValueFunction))
		refuse_session_function(
			sql_value_function_name(((SQLValueFunction *) node)->op));
	if (IsA(node, NextValueExpr))
		refuse_volatile_function(F_NEXTVAL);
	if (IsA(node, Aggref))
		check_aggregate_functions(((Aggref *) node)->aggfnoid);
	if (IsA(node, CoerceToDomain) || IsA(node, CoerceViaIO) ||
		IsA(node, FuncExpr))
		check_made_type(exprType(node));
	(void) check_functions_in_node(node, check_function, NULL);

	if (IsA(node, Query))
		return query_tree_walker((Query *) node, check_functions_walker,
								 context, 0);
	return expression_tree_walker(node, check_functions_walker, context);
}


/* ---------- first look: clauses ---------- */

/* What no level of the query may have. */
static void
check_clauses(Query *q)
{
	ListCell *lc;

	if (q->commandType != CMD_SELECT || q->utilityStmt != NULL ||
		q->hasModifyingCTE)
		ereport(
			ERROR,
			(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
			 errmsg("continuous view cannot change data"),
			 errhint(
				 "Write a SELECT without INSERT, UPDATE or DELETE in WITH.")));
	if (q->setOperations != NULL)
		ereport(
			ERROR,
			(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
			 errmsg("continuous view cannot use UNION, INTERSECT or EXCEPT"),
			 errhint(
				 "Create one continuous view for each branch and combine them when reading.")));
	if (q->hasRecursive)
		ereport(
			ERROR,
			(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
			 errmsg("continuous view cannot use WITH RECURSIVE"),
			 errdetail("A recursive query has no result per event."),
			 errhint(
				 "Remove RECURSIVE, or run the recursive query when reading the view.")));
	foreach(lc, q->cteList)
	{
		CommonTableExpr *cte = lfirst_node(CommonTableExpr, lc);

		if (cte->ctematerialized == CTEMaterializeAlways)
			ereport(
				ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg(
					 "continuous view cannot use a MATERIALIZED common table expression"),
				 errdetail(
					 "\"%s\" could not become part of the query over the stream.",
					 cte->ctename),
				 errhint("Remove MATERIALIZED.")));
	}
	if (q->distinctClause != NIL)
		ereport(
			ERROR,
			(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
			 errmsg("continuous view cannot use SELECT DISTINCT"),
			 errhint(
				 "Use GROUP BY over the same expressions, or DISTINCT when reading the view.")));
	if (q->sortClause != NIL)
		ereport(
			ERROR,
			(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
			 errmsg("continuous view cannot use ORDER BY"),
			 errdetail(
				 "A view's rows have no order; ORDER BY inside an aggregate is accepted."),
			 errhint("Use ORDER BY when reading the view.")));
	if (q->limitCount != NULL || q->limitOffset != NULL)
		ereport(
			ERROR,
			(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
			 errmsg("continuous view cannot use LIMIT, OFFSET or FETCH"),
			 errdetail(
				 "A row that left the limit would have to come back when another changes."),
			 errhint("Use LIMIT when reading the view.")));
	if (q->hasWindowFuncs || q->windowClause != NIL)
		ereport(
			ERROR,
			(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
			 errmsg("continuous view cannot use window functions (OVER)"),
			 errhint(
				 "Group by tumble() in FROM for windows in time, or use OVER when reading the view.")));
	if (q->hasSubLinks)
		ereport(
			ERROR,
			(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
			 errmsg("continuous view cannot use a subquery expression"),
			 errdetail(
				 "EXISTS, IN (SELECT ...) and scalar subqueries would need other rows than the event."),
			 errhint(
				 "Store what is needed in the event, or join when reading the view.")));
	if (q->rowMarks != NIL || q->hasForUpdate)
		ereport(ERROR, (errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
						errmsg("continuous view cannot lock rows"),
						errdetail("Events never change."),
						errhint("Remove FOR UPDATE or FOR SHARE.")));
	if (q->hasTargetSRFs)
		ereport(
			ERROR,
			(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
			 errmsg(
				 "continuous view cannot use a set-returning function in its SELECT list"),
			 errhint(
				 "Store one event for each element, or call the function when reading the view.")));
}

/* The outermost level. */
static void
check_top(Query *q)
{
	check_clauses(q);
	if (!q->hasAggs && q->groupClause == NIL && q->groupingSets == NIL &&
		q->havingQual == NULL)
		ereport(
			ERROR,
			(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
			 errmsg("continuous view needs an aggregate or GROUP BY"),
			 errdetail(
				 "Views that return a row for each event are not supported yet."),
			 errhint(
				 "Add GROUP BY, or use an ordinary view over the stream.")));
}


/* ---------- second look: FROM ---------- */

/* The extension's set-returning window functions. */
static const struct WindowFunction
{
	const char *name;
	WeirWindowKind kind;
	const char *first;	/* what the input query calls instead, or NULL */
	const char *starts; /* the scalars */
	const char *ends;
} window_functions[] = {
	{"tumble", WEIR_WINDOW_BIN, NULL, "tumble_start", "tumble_end"},
	{"hop", WEIR_WINDOW_HOP, "hop_first", "hop_start", "hop_end"},
	{"cumulate", WEIR_WINDOW_CUMULATE, "cumulate_first", "cumulate_start",
	 "cumulate_end"},
	{"session", WEIR_WINDOW_SESSION, "session_event", "session_event_start",
	 "session_event_end"},
	{"count_window", WEIR_WINDOW_COUNT, "count_event", "count_event_start",
	 "count_event_end"},
};

typedef struct WindowFunction WindowFunction;

/* Which of them is called here, or NULL. */
static const WindowFunction *
window_function(Node *node)
{
	FuncExpr *call = (FuncExpr *) node;
	Oid extension;
	char *name;

	if (node == NULL || !IsA(node, FuncExpr) || !call->funcretset ||
		call->funcid < FirstNormalObjectId)
		return NULL;
	extension = getExtensionOfObject(ProcedureRelationId, call->funcid);
	if (!OidIsValid(extension) ||
		extension != get_extension_oid("pg_weir", true))
		return NULL;
	name = get_func_name(call->funcid);
	for (int i = 0; name != NULL && i < lengthof(window_functions); i++)
		if (strcmp(name, window_functions[i].name) == 0)
			return &window_functions[i];
	return NULL;
}

static void check_from_query(Query *q, QueryLevel *up, bool top,
							 FromItems *items);

static void
check_from_item(Node *node, QueryLevel *level, FromItems *items)
{
	RangeTblEntry *rte;
	ListCell *lc;

	check_stack_depth();
	if (node == NULL)
		return;
	if (IsA(node, FromExpr))
	{
		foreach(lc, ((FromExpr *) node)->fromlist)
			check_from_item((Node *) lfirst(lc), level, items);
		return;
	}
	if (IsA(node, JoinExpr))
	{
		check_from_item(((JoinExpr *) node)->larg, level, items);
		check_from_item(((JoinExpr *) node)->rarg, level, items);
		return;
	}

	rte = rt_fetch(castNode(RangeTblRef, node)->rtindex, level->query->rtable);
	if (rte->tablesample != NULL)
		ereport(ERROR, (errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
						errmsg("continuous view cannot use TABLESAMPLE"),
						errhint("Filter on a hash of a column of the event.")));
	switch (rte->rtekind)
	{
		case RTE_RELATION:
			items->relations = lappend(items->relations, rte);
			items->queries = lappend(items->queries, level->query);
			break;
		case RTE_SUBQUERY:
			check_from_query(rte->subquery, level, false, items);
			break;
		case RTE_FUNCTION:
			foreach(lc, rte->functions)
			{
				if (window_function(
						lfirst_node(RangeTblFunction, lc)->funcexpr))
					items->nwindows++;
			}
			break;
		case RTE_CTE:
		{
			QueryLevel *owner = level;

			for (Index i = 0; i < rte->ctelevelsup; i++)
				owner = owner->up;
			foreach(lc, owner->query->cteList)
			{
				CommonTableExpr *cte = lfirst_node(CommonTableExpr, lc);

				if (strcmp(cte->ctename, rte->ctename) == 0)
					check_from_query(castNode(Query, cte->ctequery), owner,
									 false, items);
			}
		}
		break;
		default:
			/* VALUES, XMLTABLE, ...: the planned query will tell */
			break;
	}
}

/* top: the input query itself, whose clauses were looked at before the split. */
static void
check_from_query(Query *q, QueryLevel *up, bool top, FromItems *items)
{
	QueryLevel level = {q, up};

	if (!top)
	{
		check_clauses(q);
		if (q->hasAggs || q->groupClause != NIL || q->groupingSets != NIL ||
			q->havingQual != NULL)
			ereport(
				ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("continuous view cannot aggregate in a subquery"),
				 errdetail(
					 "Rows that an inner aggregate has given out would have to be taken back when an event changes it."),
				 errhint(
					 "Create a continuous view over the stream and aggregate again when reading it.")));
	}
	check_from_item((Node *) q->jointree, &level, items);
}

/* One relation, and it is a stream that the owner may read without policies. */
static Oid
check_relations(FromItems *items, Oid owner)
{
	RangeTblEntry *rte;
	Query *query;
	ListCell *lc;
	char relkind;
	char *name;

	foreach(lc, items->relations)
	{
		rte = lfirst_node(RangeTblEntry, lc);
		if (weir_catalog_is_continuous_oid(rte->relid))
			ereport(
				ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("continuous view cannot read another continuous view"),
				 errdetail("\"%s\" is a continuous view.",
						   get_rel_name(rte->relid)),
				 errhint(
					 "Read the stream, or use an ordinary view over \"%s\".",
					 get_rel_name(rte->relid))));
	}
	if (items->relations == NIL)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("continuous view must read a stream"),
				 errdetail("FROM names no table."),
				 errhint("Name a table created with USING stream in FROM.")));
	if (list_length(items->relations) > 1)
	{
		RangeTblEntry *other = lsecond_node(RangeTblEntry, items->relations);

		foreach(lc, items->relations)
		{
			rte = lfirst_node(RangeTblEntry, lc);
			if (!weir_catalog_is_stream_oid(rte->relid))
				other = rte;
		}
		ereport(
			ERROR,
			(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
			 errmsg("continuous view cannot join"),
			 errdetail("FROM also reads \"%s\"; a view reads one stream, once.",
					   get_rel_name(other->relid)),
			 errhint(
				 "Store what is needed in the event, or join when reading the view.")));
	}

	rte = linitial_node(RangeTblEntry, items->relations);
	query = linitial_node(Query, items->queries);
	name = get_rel_name(rte->relid);
	relkind = get_rel_relkind(rte->relid);
	if (relkind == RELKIND_PARTITIONED_TABLE ||
		(rte->inh && find_inheritance_children(rte->relid, NoLock) != NIL))
		ereport(
			ERROR,
			(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
			 errmsg(
				 "continuous view cannot read a table with partitions or children"),
			 errdetail("\"%s\" has or may have child tables.", name),
			 errhint(
				 "Create one continuous view for each partition that is a stream, and combine them when reading.")));
	if (!weir_catalog_is_stream_oid(rte->relid))
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("continuous view must read a stream"),
				 errdetail("\"%s\" is not a stream.", name),
				 errhint("Name a table created with USING stream in FROM.")));

	if (check_enable_rls(rte->relid, weir_rte_user(query, rte), true) ==
		RLS_ENABLED)
		ereport(
			ERROR,
			(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
			 errmsg(
				 "continuous view cannot read a stream under row-level security"),
			 errdetail("The policies of \"%s\" apply to role \"%s\".", name,
					   GetUserNameFromId(owner, false)),
			 errhint(
				 "Let a role that is not subject to the policies own the view.")));
	return rte->relid;
}


/* ---------- third look: the plan ---------- */

/* The first scan in a plan that is not of the stream, or NULL. */
static RangeTblEntry *
find_other_scan(Plan *plan, PlanFacts *facts)
{
	RangeTblEntry *rte;

	if (plan == NULL)
		return NULL;
	switch (nodeTag(plan))
	{
		case T_SubqueryScan:
			return find_other_scan(((SubqueryScan *) plan)->subplan, facts);
		case T_FunctionScan:
		case T_TableFuncScan:
		case T_ValuesScan:
		case T_CteScan:
		case T_SeqScan:
			rte = rt_fetch(((Scan *) plan)->scanrelid, facts->stmt->rtable);
			if (rte->rtekind != RTE_RELATION || rte->relid != facts->stream)
				return rte;
			return NULL;
		default:
			rte = find_other_scan(outerPlan(plan), facts);
			return rte ? rte : find_other_scan(innerPlan(plan), facts);
	}
}

static void
refuse_plan(PlanFacts *facts)
{
	RangeTblEntry *rte = find_other_scan(facts->stmt->planTree, facts);

	if (rte != NULL)
		ereport(
			ERROR,
			(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
			 errmsg("continuous view cannot combine a stream with other rows"),
			 errdetail(
				 "\"%s\" in FROM does not become an expression over one event.",
				 rte->eref->aliasname),
			 errhint(
				 "Read one stream, with tumble() and subqueries without aggregates.")));
	ereport(
		ERROR,
		(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
		 errmsg("continuous view needs a plan that only scans one stream"),
		 errdetail("The planner found another way to run this query."),
		 errhint(
			 "Read one stream, with WHERE, tumble() and subqueries without aggregates.")));
}

static void
refuse_system_column(void)
{
	ereport(
		ERROR,
		(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
		 errmsg("continuous view cannot use system columns"),
		 errdetail(
			 "An event's place in the log may change, its columns do not."),
		 errhint(
			 "Use a column of the stream, for instance an identity column.")));
}

/* Columns of the stream in the expressions of its scan. */
static void
collect_columns(Node *exprs, Index scanrelid, PlanFacts *facts)
{
	Bitmapset *attrs = NULL;
	int i = -1;

	pull_varattnos(exprs, scanrelid, &attrs);
	while ((i = bms_next_member(attrs, i)) >= 0)
	{
		AttrNumber attno = i + FirstLowInvalidHeapAttributeNumber;

		if (attno < 0)
			refuse_system_column();
		facts->columns = bms_add_member(facts->columns, attno);
	}
	bms_free(attrs);
}

static bool
has_arrival(Node *node, void *context)
{
	if (node == NULL)
		return false;
	return is_arrival(node) ||
		   expression_tree_walker(node, has_arrival, context);
}

static void
refuse_arrival_qual(void)
{
	ereport(
		ERROR,
		(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
		 errmsg(
			 "continuous view cannot have a condition on a window over now() there"),
		 errhint(
			 "Write it in the outermost WHERE or in HAVING, without other columns, or when reading the view.")));
}

static void
check_plan_node(Plan *plan, PlanFacts *facts)
{
	if (plan->initPlan != NIL)
		refuse_plan(facts);
	/* SQL functions have been inlined by now: look at their bodies too */
	(void) check_functions_walker((Node *) plan->targetlist,
								  WINDOWS_OVER_ARRIVAL);
	(void) check_functions_walker((Node *) plan->qual, WINDOWS_OVER_ARRIVAL);

	switch (nodeTag(plan))
	{
		case T_Result:
			/* judged once, not per event */
			if (has_arrival(((Result *) plan)->resconstantqual, NULL))
				refuse_arrival_qual();
			(void) check_functions_walker(((Result *) plan)->resconstantqual,
										  NULL);
			if (outerPlan(plan) != NULL)
				check_plan_node(outerPlan(plan), facts);
			break;
		case T_SubqueryScan:
			check_plan_node(((SubqueryScan *) plan)->subplan, facts);
			break;
		case T_SeqScan:
		case T_CustomScan:
		{
			Index scanrelid = ((Scan *) plan)->scanrelid;

			if (scanrelid == 0 ||
				rt_fetch(scanrelid, facts->stmt->rtable)->relid !=
					facts->stream)
				refuse_plan(facts);
			collect_columns((Node *) plan->targetlist, scanrelid, facts);
			collect_columns((Node *) plan->qual, scanrelid, facts);
			if (IsA(plan, CustomScan))
			{
				CustomScan *custom = (CustomScan *) plan;

				if (custom->custom_plans != NIL)
					refuse_plan(facts);
				collect_columns((Node *) custom->custom_exprs, scanrelid,
								facts);
				collect_columns((Node *) custom->custom_scan_tlist, scanrelid,
								facts);
			}
		}
		break;
		case T_TidScan:
		case T_TidRangeScan:
			refuse_system_column();
			break;
		default:
			refuse_plan(facts);
	}
}

/* facts->columns: what the plan reads of the stream. */
static void
check_plan(PlannedStmt *stmt, Oid stream, PlanFacts *facts)
{
	facts->stmt = stmt;
	facts->stream = stream;
	facts->columns = NULL;
	if (stmt->subplans != NIL)
		refuse_plan(facts);
	check_plan_node(stmt->planTree, facts);
}

/* A target expression of a plan node in terms of the stream's columns. */
typedef struct ResolveContext
{
	Plan *plan;
} ResolveContext;

static Node *
resolve_mutator(Node *node, ResolveContext *context)
{
	if (node == NULL)
		return NULL;
	if (IsA(node, Var))
	{
		Var *var = (Var *) node;
		Plan *plan = context->plan;
		ResolveContext below = {NULL};
		List *tlist = NIL;

		if (IsA(plan, Result) && var->varno == OUTER_VAR)
			below.plan = outerPlan(plan);
		else if (IsA(plan, SubqueryScan))
			below.plan = ((SubqueryScan *) plan)->subplan;
		else if (IsA(plan, CustomScan) && var->varno == INDEX_VAR)
			tlist = ((CustomScan *) plan)->custom_scan_tlist;
		if (below.plan != NULL)
			tlist = below.plan->targetlist;
		if (tlist == NIL || var->varattno < 1 ||
			var->varattno > list_length(tlist))
			return (Node *) copyObject(var);
		node =
			(Node *) list_nth_node(TargetEntry, tlist, var->varattno - 1)->expr;
		if (below.plan == NULL)
			return copyObject(node);
		return resolve_mutator(node, &below);
	}
	return expression_tree_mutator(node, resolve_mutator, (void *) context);
}


/* ---------- windows ---------- */

/* The window function whose scalar this is, or NULL; *end: the end's. */
static const WindowFunction *
window_scalar(Oid func, bool *end)
{
	char *name;

	if (func < FirstNormalObjectId ||
		get_func_namespace(func) != weir_catalog_schema())
		return NULL;
	name = get_func_name(func);
	for (int i = 0; name != NULL && i < lengthof(window_functions); i++)
	{
		*end = strcmp(name, window_functions[i].ends) == 0;
		if (*end || strcmp(name, window_functions[i].starts) == 0)
			return &window_functions[i];
	}
	return NULL;
}

/* Does it take a time, and give windows or a bound of one? */
static bool
is_window_call(FuncExpr *call)
{
	bool end;

	return call->args != NIL && (window_function((Node *) call) != NULL ||
								 window_scalar(call->funcid, &end) != NULL);
}

/* Is it the stream's event time, bare? */
static bool
is_event_time(Node *node, PlanFacts *facts, AttrNumber event_attno)
{
	Var *var;

	while (node != NULL && IsA(node, RelabelType))
		node = (Node *) ((RelabelType *) node)->arg;
	var = (Var *) node;
	if (node == NULL || !IsA(node, Var) || event_attno == 0 ||
		IS_SPECIAL_VARNO(var->varno) || var->varattno != event_attno)
		return false;
	return rt_fetch(var->varno, facts->stmt->rtable)->relid == facts->stream;
}

/* A constant argument that is not NULL, else NULL. */
static Const *
constant_argument(FuncExpr *call, int n)
{
	Node *arg = (Node *) list_nth(call->args, n);

	if (!IsA(arg, Const) || ((Const *) arg)->constisnull)
		return NULL;
	return (Const *) arg;
}

static int64
checked_origin(const Const *origin)
{
	int64 t = DatumGetTimestampTz(origin->constvalue);

	if (TIMESTAMP_NOT_FINITE(t))
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("window origin must be finite"),
						errhint("Use a time at which a window shall start.")));
	return t;
}

static void
set_bin(KeyWindow *w, Const *size, Const *origin, const char *what)
{
	w->window.kind = WEIR_WINDOW_BIN;
	w->window.size =
		weir_window_fixed_length(DatumGetIntervalP(size->constvalue), what);
	w->window.origin = origin ? checked_origin(origin) : 0;
}

/* The constant that a window function has for argument n. */
static Const *
window_argument(FuncExpr *call, int n)
{
	Const *c = constant_argument(call, n);

	if (c == NULL)
		ereport(
			ERROR,
			(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
			 errmsg("continuous view needs a constant window size and origin"),
			 errhint("Write them as literals that are not NULL.")));
	return c;
}

/* Its first argument is event time, as it must be. */
static void
check_window_time(FuncExpr *call, const char *name, PlanFacts *facts,
				  const WeirStreamOptions *options)
{
	if (options->event_attno == 0)
		ereport(
			ERROR,
			(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
			 errmsg(
				 "continuous view needs the event time of its stream for a window"),
			 errdetail("Stream \"%s\" has no event_time.",
					   get_rel_name(facts->stream)),
			 errhint("Use ALTER TABLE ... SET (event_time = ...).")));
	if (!is_event_time((Node *) linitial(call->args), facts,
					   options->event_attno))
		ereport(
			ERROR,
			(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
			 errmsg(
				 "continuous view cannot have a window over anything but event time"),
			 errdetail("The event time of \"%s\" is column \"%s\".",
					   get_rel_name(facts->stream),
					   get_attname(facts->stream, options->event_attno, false)),
			 errhint("Give %s() that column, bare, as its first argument.",
					 name)));
}

/* A window function: everything that is wrong with it is an error. */
static void
recognise_scalar(FuncExpr *call, const WindowFunction *function, bool end,
				 PlanFacts *facts, const WeirStreamOptions *options,
				 KeyWindow *w)
{
	WeirWindow *window = &w->window;

	window->by_arrival =
		function->kind != WEIR_WINDOW_COUNT && is_arrival(linitial(call->args));
	if (function->kind != WEIR_WINDOW_COUNT && !window->by_arrival)
		check_window_time(call, function->name, facts, options);
	w->found = true;
	w->scalar = true;
	w->call = call;
	window->key_is_end = end;
	window->is_timestamptz =
		exprType((Node *) linitial(call->args)) == TIMESTAMPTZOID;
	switch (function->kind)
	{
		case WEIR_WINDOW_HOP:
		case WEIR_WINDOW_CUMULATE:
			(void) weir_window_parts(
				DatumGetIntervalP(window_argument(call, 1)->constvalue),
				DatumGetIntervalP(window_argument(call, 2)->constvalue),
				function->kind == WEIR_WINDOW_CUMULATE, &window->slide,
				&window->size);
			window->origin = checked_origin(window_argument(call, 3));
			break;
		case WEIR_WINDOW_SESSION:
			window->size = weir_session_gap(
				DatumGetIntervalP(window_argument(call, 1)->constvalue));
			break;
		case WEIR_WINDOW_COUNT:
			window->size = DatumGetInt64(window_argument(call, 0)->constvalue);
			window->slide = window->size;
			if (constant_argument(call, 1) != NULL ||
				!IsA(lsecond(call->args), Const))
				window->slide =
					DatumGetInt64(window_argument(call, 1)->constvalue);
			weir_count_window_check(window->size, window->slide);
			break;
		default:
			set_bin(w, window_argument(call, 1), window_argument(call, 2),
					"size");
			break;
	}
	window->kind = function->kind;
}

/* The interval that date_trunc() truncates to; false: not a unit of it. */
static bool
trunc_unit(const char *text, Interval *unit)
{
	char *low = downcase_truncate_identifier(text, strlen(text), false);
	int val;

	memset(unit, 0, sizeof(Interval));
	if (DecodeUnits(0, low, &val) != UNITS)
		return false;
	switch (val)
	{
		case DTK_MILLENNIUM:
			unit->month = 1000 * MONTHS_PER_YEAR;
			break;
		case DTK_CENTURY:
			unit->month = 100 * MONTHS_PER_YEAR;
			break;
		case DTK_DECADE:
			unit->month = 10 * MONTHS_PER_YEAR;
			break;
		case DTK_YEAR:
			unit->month = MONTHS_PER_YEAR;
			break;
		case DTK_QUARTER:
			unit->month = 3;
			break;
		case DTK_MONTH:
			unit->month = 1;
			break;
		case DTK_WEEK:
			unit->day = 7;
			break;
		case DTK_DAY:
			unit->day = 1;
			break;
		case DTK_HOUR:
			unit->time = USECS_PER_HOUR;
			break;
		case DTK_MINUTE:
			unit->time = USECS_PER_MINUTE;
			break;
		case DTK_SECOND:
			unit->time = USECS_PER_SEC;
			break;
		case DTK_MILLISEC:
			unit->time = 1000;
			break;
		case DTK_MICROSEC:
			unit->time = 1;
			break;
		default:
			return false;
	}
	return true;
}

/* date_bin() or date_trunc(); anything unusual makes an ordinary key. */
static void
recognise_core(FuncExpr *call, PlanFacts *facts, AttrNumber event_attno,
			   KeyWindow *w)
{
	Const *c0;
	Const *c2;

	switch (call->funcid)
	{
		case F_DATE_BIN_INTERVAL_TIMESTAMP_TIMESTAMP:
		case F_DATE_BIN_INTERVAL_TIMESTAMPTZ_TIMESTAMPTZ:
			c0 = constant_argument(call, 0);
			c2 = constant_argument(call, 2);
			if (c0 == NULL || c2 == NULL ||
				!is_event_time((Node *) lsecond(call->args), facts,
							   event_attno))
				return;
			w->window.is_timestamptz =
				(call->funcid == F_DATE_BIN_INTERVAL_TIMESTAMPTZ_TIMESTAMPTZ);
			set_bin(w, c0, c2, "size");
			break;
		case F_DATE_TRUNC_TEXT_TIMESTAMP:
		case F_DATE_TRUNC_TEXT_TIMESTAMPTZ:
		case F_DATE_TRUNC_TEXT_TIMESTAMPTZ_TEXT:
			c0 = constant_argument(call, 0);
			if (c0 == NULL ||
				!is_event_time((Node *) lsecond(call->args), facts,
							   event_attno) ||
				!trunc_unit(TextDatumGetCString(c0->constvalue),
							&w->window.unit))
				return;
			w->window.kind = WEIR_WINDOW_TRUNC;
			w->window.is_timestamptz =
				(call->funcid != F_DATE_TRUNC_TEXT_TIMESTAMP);
			/*
			 * The frozen TimeZone is in force now; naming it here makes the
			 * window independent of where its ends are computed later.
			 */
			if (call->funcid == F_DATE_TRUNC_TEXT_TIMESTAMPTZ)
				w->window.zone = session_timezone;
			else if (call->funcid == F_DATE_TRUNC_TEXT_TIMESTAMPTZ_TEXT)
			{
				c2 = constant_argument(call, 2);
				if (c2 == NULL)
					return;
				w->window.zone =
					DecodeTimezoneNameToTz(TextDatumGetCString(c2->constvalue));
			}
			break;
		default:
			return;
	}
	w->found = true;
	w->call = call;
}

/* Does every window of a lie inside one window of b? */
static bool
window_nests(const KeyWindow *a, const KeyWindow *b)
{
	const Interval *ua = &a->window.unit;
	const Interval *ub = &b->window.unit;

	if (a->window.kind != b->window.kind)
		return false;
	if (a->window.kind == WEIR_WINDOW_BIN)
		return b->window.size % a->window.size == 0 &&
			   (a->window.origin - b->window.origin) % a->window.size == 0;

	if (a->window.zone != b->window.zone)
		return false;
	if (ua->month > 0)
	{
		/* decades start in years ...0, centuries and millennia in ...1 */
		if (ua->month == 10 * MONTHS_PER_YEAR && ub->month != ua->month)
			return false;
		return ub->month >= ua->month;
	}
	if (ub->month > 0)
		return ua->day != 7;
	if (ua->day > 0)
		return ub->day >= ua->day;
	return ub->day > 0 || ub->time >= ua->time;
}

/* Key i or another column of the input query, by the stream's columns. */
static Node *
resolved_target(PlanFacts *facts, int i)
{
	ResolveContext context = {facts->stmt->planTree};
	TargetEntry *tle =
		list_nth_node(TargetEntry, facts->stmt->planTree->targetlist, i);

	return resolve_mutator((Node *) tle->expr, &context);
}

/* Are these bounds of the same window? */
static bool
same_window(FuncExpr *a, FuncExpr *b)
{
	ListCell *la;
	ListCell *lb;

	/* the scalars of one function have the same arguments, or one more */
	forboth(la, a->args, lb, b->args)
	{
		if (!equal(lfirst(la), lfirst(lb)))
			return false;
	}
	return true;
}

static bool
has_window_scalar(Node *node, void *context)
{
	bool end;

	if (node == NULL)
		return false;
	if (IsA(node, FuncExpr) &&
		window_scalar(((FuncExpr *) node)->funcid, &end) != NULL)
		return true;
	return expression_tree_walker(node, has_window_scalar, context);
}

static bool
has_window_qual(Plan *plan)
{
	ResolveContext context = {plan};
	Plan *below = outerPlan(plan);

	if (has_window_scalar(resolve_mutator((Node *) plan->qual, &context), NULL))
		return true;
	if (IsA(plan, Result) &&
		has_window_scalar(
			resolve_mutator(((Result *) plan)->resconstantqual, &context),
			NULL))
		return true;
	if (IsA(plan, SubqueryScan))
		below = ((SubqueryScan *) plan)->subplan;
	return below != NULL && has_window_qual(below);
}

static void
refuse_window_column(const WindowFunction *function)
{
	ereport(
		ERROR,
		(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
		 errmsg("continuous view cannot use columns of %s() for each event",
				function->name),
		 errdetail("An event is kept once, not once for each of its windows."),
		 errhint(
			 "Let them stand bare in GROUP BY, and use them in SELECT and HAVING.")));
}

/*
 * The input query has only the first of the windows a row is in: nothing but
 * the window's keys may depend on it.
 */
static void
check_window_columns(WeirViewPlan *plan, PlanFacts *facts)
{
	const WindowFunction *function = NULL;
	int n = list_length(facts->stmt->planTree->targetlist);
	ListCell *lc;

	for (int i = 0; i < lengthof(window_functions); i++)
		if (window_functions[i].kind == plan->window.kind)
			function = &window_functions[i];
	foreach(lc, plan->aggs)
	{
		const WeirAggSpec *spec = lfirst(lc);

		/* what is a key too is one column */
		for (int i = 0; i <= spec->nargs; i++)
		{
			AttrNumber attno =
				i < spec->nargs ? spec->arg_attno[i] : spec->filter_attno;

			if (attno > 0 && attno <= plan->nkeys &&
				plan->keys[attno - 1].is_window)
				refuse_window_column(function);
		}
	}
	for (int i = 0; i < n; i++)
	{
		if ((i >= plan->nkeys || !plan->keys[i].is_window) &&
			has_window_scalar(resolved_target(facts, i), NULL))
			refuse_window_column(function);
	}
	if (has_window_qual(facts->stmt->planTree))
		refuse_window_column(function);
}

/* The window is in every grouping set, whole. */
static void
check_window_sets(const WeirViewPlan *plan)
{
	for (int set = 0; set < plan->nsets; set++)
	{
		for (int i = 0; i < plan->nkeys; i++)
		{
			if (plan->keys[i].is_window &&
				!bms_is_member(i, plan->set_keys[set]))
				ereport(
					ERROR,
					(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					 errmsg(
						 "continuous view does not group by its window in every grouping set"),
					 errhint(
						 "Write GROUP BY window_start, GROUPING SETS (...).")));
		}
	}
	if (plan->nsets > 0 && weir_window_is_span(&plan->window))
		ereport(
			ERROR,
			(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
			 errmsg("continuous view cannot use GROUPING SETS, ROLLUP or CUBE "
					"with this window"),
			 errdetail("Its windows would be others in each set."),
			 errhint("Create one continuous view for each grouping.")));
}

/*
 * Find the plan's window among its keys.  nwindows: window functions in FROM.
 */
static void
recognise_windows(WeirViewPlan *plan, PlanFacts *facts,
				  const WeirStreamOptions *options, int nwindows, bool notice)
{
	KeyWindow *w = palloc0(sizeof(KeyWindow) * (plan->nkeys + 1));
	int best = -1;

	if (nwindows > 1)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("continuous view cannot use two window functions"),
				 errhint("Create one continuous view for each window.")));

	for (int i = 0; i < plan->nkeys; i++)
	{
		Node *expr = resolved_target(facts, i);
		const WindowFunction *function;
		bool end;

		if (!IsA(expr, FuncExpr))
			continue;
		function = window_scalar(((FuncExpr *) expr)->funcid, &end);
		if (function != NULL)
			recognise_scalar((FuncExpr *) expr, function, end, facts, options,
							 &w[i]);
		else if (nwindows == 0)
			recognise_core((FuncExpr *) expr, facts, options->event_attno,
						   &w[i]);
	}

	/* a window function: its start, if that is a key and says all, else its end */
	for (int i = 0; i < plan->nkeys; i++)
	{
		if (!w[i].scalar)
			continue;
		if (best >= 0 && !same_window(w[i].call, w[best].call))
			ereport(ERROR,
					(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					 errmsg("continuous view cannot use two window functions"),
					 errhint("Create one continuous view for each window.")));
		if (best < 0 || w[best].window.key_is_end !=
							(w[i].window.kind == WEIR_WINDOW_CUMULATE))
			best = i;
		plan->keys[i].is_window = true;
		plan->keys[i].is_window_end = w[i].window.key_is_end;
	}
	if (best >= 0 && w[best].window.kind == WEIR_WINDOW_CUMULATE &&
		!w[best].window.key_is_end)
		ereport(
			ERROR,
			(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
			 errmsg("continuous view does not group by its window"),
			 errdetail("Windows of cumulate() with one start differ by their "
					   "ends."),
			 errhint("window_end stands bare in GROUP BY.")));
	if (best < 0 && nwindows > 0)
		ereport(
			ERROR,
			(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
			 errmsg("continuous view does not group by its window"),
			 errhint("window_start or window_end stands bare in GROUP BY.")));

	/* date_trunc(), date_bin(): the one inside all others */
	if (best < 0)
	{
		bool any = false;

		for (int i = 0; i < plan->nkeys && best < 0; i++)
		{
			bool finest = w[i].found;

			any |= w[i].found;
			for (int j = 0; j < plan->nkeys && finest; j++)
			{
				if (w[j].found && !window_nests(&w[i], &w[j]))
					finest = false;
			}
			if (finest)
				best = i;
		}
		if (!any)
			return;
		if (best < 0)
			ereport(
				ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg(
					 "continuous view cannot group by two different time windows"),
				 errdetail(
					 "Windows of one key in GROUP BY cross the bounds of another's."),
				 errhint("Create one continuous view for each window.")));
		plan->keys[best].is_window = true;
		if (notice)
			ereport(
				NOTICE,
				(errmsg(
					 "%s() in GROUP BY is a time window over event time \"%s\"",
					 get_func_name(w[best].call->funcid),
					 get_attname(plan->stream, options->event_attno, false)),
				 errdetail(
					 "A window is final, and later events for it are dropped, when the watermark has passed its end by allowed_lateness.")));
	}
	plan->window = w[best].window;
	plan->window_key = best;
	check_window_sets(plan);
	plan->merged = weir_window_overlaps(&plan->window) ||
				   plan->window.kind == WEIR_WINDOW_SESSION;
	if (weir_window_overlaps(&plan->window) ||
		weir_window_is_span(&plan->window))
		check_window_columns(plan, facts);

	for (int i = 0; i < list_length(plan->targetlist); i++)
	{
		int key = plan->column_key[i];

		if (key < 0 || !plan->keys[key].is_window)
			continue;
		if (!w[key].window.key_is_end && plan->window_start_column == 0)
			plan->window_start_column = i + 1;
		if (w[key].window.key_is_end && plan->window_end_column == 0)
			plan->window_end_column = i + 1;
	}
}


/* ---------- the split ---------- */

/* Add a column to the input query. */
static AttrNumber
add_input_column(WeirViewPlan *plan, Node *expr, char *name)
{
	TargetEntry *tle;
	Oid type = exprType(expr);

	/*
	 * A row without a type of its own bears a number that only this process
	 * knows.  ("unknown" is the type of a bare literal, count('x').)
	 */
	if (get_typtype(type) == TYPTYPE_PSEUDO && type != UNKNOWNOID)
		ereport(
			ERROR,
			(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
			 errmsg("continuous view cannot keep a value of type %s",
					format_type_be(type)),
			 errhint(
				 "Use the columns one by one, or cast the row to a named composite type.")));
	tle =
		makeTargetEntry((Expr *) copyObject(expr),
						list_length(plan->input->targetList) + 1, name, false);
	plan->input->targetList = lappend(plan->input->targetList, tle);
	return tle->resno;
}

/* Column of the input query that has this expression; added if it is new. */
static AttrNumber
input_column(WeirViewPlan *plan, Node *expr, char *name)
{
	ListCell *lc;

	foreach(lc, plan->input->targetList)
	{
		TargetEntry *tle = lfirst_node(TargetEntry, lc);

		/* a key is null in groups of sets without it, an argument is not */
		if (plan->nsets > 0 && tle->resno <= plan->nkeys)
			continue;
		if (equal(tle->expr, expr))
			return tle->resno;
	}
	return add_input_column(plan, expr, name);
}

/* Are the bytes of equal values equal? */
static bool
key_by_image(SortGroupClause *clause, Oid collation)
{
	Oid opfamily;
	Oid opcintype;
	Oid proc;
	WeirOrdering ordering;

	if (!OidIsValid(clause->sortop) ||
		!get_ordering_op_properties(clause->sortop, &opfamily, &opcintype,
									&ordering))
		return false;
	/* it says so, yet 'a' and 'a ' are equal */
	if (opcintype == BPCHAROID)
		return false;
	proc = get_opfamily_proc(opfamily, opcintype, opcintype, BTEQUALIMAGE_PROC);
	return OidIsValid(proc) &&
		   DatumGetBool(OidFunctionCall1Coll(proc, collation,
											 ObjectIdGetDatum(opcintype)));
}

static void
set_key(WeirKey *key, Node *expr, SortGroupClause *clause)
{
	Oid left;
	Oid right;

	key->type = exprType(expr);
	key->typmod = exprTypmod(expr);
	key->collation = exprCollation(expr);
	get_typlenbyvalalign(key->type, &key->typlen, &key->typbyval,
						 &key->typalign);
	key->eq_op = clause->eqop;
	key->eq_proc = get_opcode(clause->eqop);
	if (func_volatile(key->eq_proc) == PROVOLATILE_VOLATILE)
		refuse_volatile_function(key->eq_proc);
	key->by_image = key_by_image(clause, key->collation);
	/* "hashable" has looked into arrays, records and ranges */
	if (clause->hashable && get_op_hash_functions(clause->eqop, &left, &right))
		key->hash_proc = left;
}

/* The number of an aggregate among the plan's; added if it is new. */
static int
aggregate_number(WeirViewPlan *plan, Aggref *aggref)
{
	WeirAggSpec *spec;
	ListCell *lc;
	int i = 0;

	foreach(lc, plan->aggs)
	{
		if (equal(((WeirAggSpec *) lfirst(lc))->aggref, aggref))
			return foreach_current_index(lc);
	}

	spec = palloc0(sizeof(WeirAggSpec));
	spec->aggref = copyObject(aggref);
	spec->nargs = list_length(aggref->args);
	spec->arg_attno = palloc0(sizeof(AttrNumber) * (spec->nargs + 1));
	foreach(lc, aggref->args)
	{
		spec->arg_attno[i++] = input_column(
			plan, (Node *) lfirst_node(TargetEntry, lc)->expr, "argument");
	}
	if (aggref->aggfilter != NULL)
		spec->filter_attno =
			input_column(plan, (Node *) aggref->aggfilter, "filter");
	plan->aggs = lappend(plan->aggs, spec);
	return list_length(plan->aggs) - 1;
}

static Node *
int4_const(int value)
{
	return (Node *) makeConst(INT4OID, -1, InvalidOid, sizeof(int32),
							  Int32GetDatum(value), false, true);
}

static int
list_position_int(const List *list, int value)
{
	ListCell *lc;

	foreach(lc, list)
	{
		if (lfirst_int(lc) == value)
			return foreach_current_index(lc);
	}
	elog(ERROR, "GROUPING names a column that is not in GROUP BY");
	return -1;
}

static Node *
key_var(WeirViewPlan *plan, int key)
{
	WeirKey *k = &plan->keys[key];

	return (Node *) makeVar(FINAL_VARNO, key + 1, k->type, k->typmod,
							k->collation, 0);
}

/*
 * GROUPING(): a bit for each argument that is not in the group's set, which is
 * told by the set's number.
 */
static Node *
grouping_of_set(GroupingFunc *func, FinalContext *context)
{
	WeirViewPlan *plan = context->plan;
	CaseExpr *c;
	ListCell *lc;

	/* without sets every column is grouped */
	if (plan->nsets == 0)
		return int4_const(0);
	c = makeNode(CaseExpr);
	c->casetype = INT4OID;
	c->location = -1;
	c->arg = (Expr *) key_var(plan, plan->nkeys - 1);
	for (int set = 0; set < plan->nsets; set++)
	{
		CaseWhen *when = makeNode(CaseWhen);
		CaseTestExpr *test = makeNode(CaseTestExpr);
		int bits = 0;

		foreach(lc, func->refs)
		{
			int key = list_position_int(context->key_refs, lfirst_int(lc));

			bits =
				(bits << 1) | (bms_is_member(key, plan->set_keys[set]) ? 0 : 1);
		}
		test->typeId = INT4OID;
		test->typeMod = -1;
		when->expr =
			make_opclause(Int4EqualOperator, BOOLOID, false, (Expr *) test,
						  (Expr *) int4_const(set), InvalidOid, InvalidOid);
		set_opfuncid((OpExpr *) when->expr);
		when->result = (Expr *) int4_const(bits);
		when->location = -1;
		c->args = lappend(c->args, when);
	}
	c->defresult = (Expr *) int4_const(0);
	return (Node *) c;
}

/* An expression over groups -> the same over the row of keys and aggregates. */
static Node *
final_mutator(Node *node, FinalContext *context)
{
	WeirViewPlan *plan = context->plan;
	ListCell *lc;

	if (node == NULL)
		return NULL;
	foreach(lc, context->key_exprs)
	{
		if (equal(node, lfirst(lc)))
			return key_var(plan, foreach_current_index(lc));
	}
	if (IsA(node, Aggref))
	{
		int n = aggregate_number(plan, (Aggref *) node);

		return (Node *) makeVar(FINAL_VARNO, plan->nkeys + n + 1,
								exprType(node), exprTypmod(node),
								exprCollation(node), 0);
	}
	if (IsA(node, GroupingFunc))
		return grouping_of_set((GroupingFunc *) node, context);
	if (IsA(node, Var) || IsA(node, Query))
		elog(ERROR, "unexpected ungrouped expression in a view's query");
	return expression_tree_mutator(node, final_mutator, (void *) context);
}

/* Ready for ExecInitExpr; bodies of inlined SQL functions are looked at. */
static Node *
planned(Node *expr)
{
	expr = (Node *) expression_planner((Expr *) expr);
	(void) check_functions_walker(expr, NULL);
	return expr;
}

static void
make_final_desc(WeirViewPlan *plan)
{
	int natts = plan->nkeys + list_length(plan->aggs);
	TupleDesc desc = CreateTemplateTupleDesc(natts);
	ListCell *lc;

	for (int i = 0; i < plan->nkeys; i++)
	{
		TupleDescInitEntry(desc, i + 1, NULL, plan->keys[i].type,
						   plan->keys[i].typmod, 0);
		TupleDescInitEntryCollation(desc, i + 1, plan->keys[i].collation);
	}
	foreach(lc, plan->aggs)
	{
		Node *aggref = (Node *) ((WeirAggSpec *) lfirst(lc))->aggref;
		AttrNumber attno = plan->nkeys + foreach_current_index(lc) + 1;

		TupleDescInitEntry(desc, attno, NULL, exprType(aggref),
						   exprTypmod(aggref), 0);
		TupleDescInitEntryCollation(desc, attno, exprCollation(aggref));
	}
	plan->final_desc = desc;
}

/*
 * A stored rule of before 16 has range table entries "old" and "new" that name
 * the view itself and are read by nothing; keep them from being locked.
 */
static void
drop_rule_entries(Query *query, Oid view)
{
	ListCell *lc;

	if (!OidIsValid(view))
		return;
	foreach(lc, query->rtable)
	{
		RangeTblEntry *rte = lfirst_node(RangeTblEntry, lc);

		if (rte->rtekind == RTE_RELATION && rte->relid == view)
		{
			RangeTblEntry *none = makeNode(RangeTblEntry);

			none->rtekind = RTE_RESULT;
			none->eref = makeAlias("*RESULT*", NIL);
			lfirst(lc) = none;
		}
	}
}

/* ANDed conditions one by one. */
static List *
and_arms(Node *qual, List *arms)
{
	ListCell *lc;

	if (qual == NULL)
		return arms;
	if (!is_andclause(qual))
		return lappend(arms, qual);
	foreach(lc, ((BoolExpr *) qual)->args)
		arms = and_arms(lfirst(lc), arms);
	return arms;
}

/*
 * Take what WHERE says of the windows of an event out of the input query: it is
 * said of the groups as well.  Returns it as a list.
 */
static List *
take_window_quals(Query *input)
{
	List *kept = NIL;
	List *taken = NIL;
	Relids windows = NULL;
	const WindowFunction *function = NULL; /* that has no row per event */
	ListCell *lc;

	foreach(lc, input->rtable)
	{
		RangeTblEntry *rte = lfirst_node(RangeTblEntry, lc);
		const WindowFunction *f;
		Node *call;

		if (rte->rtekind != RTE_FUNCTION || list_length(rte->functions) != 1)
			continue;
		call = linitial_node(RangeTblFunction, rte->functions)->funcexpr;
		f = window_function(call);
		if (f == NULL ||
			(f->first == NULL && !is_now(linitial(((FuncExpr *) call)->args))))
			continue;
		if (f->first != NULL)
			function = f;
		windows = bms_add_member(windows, foreach_current_index(lc) + 1);
	}
	if (windows == NULL)
		return NIL;

	foreach(lc, and_arms(input->jointree->quals, NIL))
	{
		Node *qual = lfirst(lc);
		Relids used = pull_varnos(NULL, qual);

		if (!bms_overlap(used, windows))
			kept = lappend(kept, qual);
		else if (function != NULL && (function->kind == WEIR_WINDOW_SESSION ||
									  function->kind == WEIR_WINDOW_COUNT))
			ereport(ERROR,
					(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					 errmsg("continuous view cannot use columns of %s() in "
							"WHERE",
							function->name),
					 errdetail("The window is known when other rows are."),
					 errhint("Use HAVING.")));
		else if (bms_is_subset(used, windows))
			taken = lappend(taken, qual);
		else if (function != NULL)
			refuse_window_column(function);
		else
			kept = lappend(kept, qual);
	}
	input->jointree->quals = (Node *) make_ands_explicit(kept);
	if (kept == NIL)
		input->jointree->quals = NULL;
	return taken;
}

/* Group by the columns of the window that conditions taken from WHERE name. */
static void
add_window_keys(WeirViewPlan *plan, List *quals, List **key_exprs)
{
	ListCell *lc;

	foreach(lc, pull_var_clause((Node *) quals, 0))
	{
		Node *var = lfirst(lc);
		SortGroupClause clause = {.type = T_SortGroupClause};

		if (list_member(*key_exprs, var))
			continue;
		get_sort_group_operators(exprType(var), true, true, false,
								 &clause.sortop, &clause.eqop, NULL,
								 &clause.hashable);
		(void) add_input_column(plan, var, "key");
		plan->keys = repalloc(plan->keys, sizeof(WeirKey) * (plan->nkeys + 3));
		MemSet(&plan->keys[plan->nkeys], 0, sizeof(WeirKey) * 3);
		set_key(&plan->keys[plan->nkeys++], var, &clause);
		*key_exprs = lappend(*key_exprs, var);
	}
}

/* Columns of the window become the keys that add_window_keys has found or made. */
static Node *
window_keys_mutator(Node *node, FinalContext *context)
{
	if (node == NULL)
		return NULL;
	if (IsA(node, Var))
	{
		ListCell *lc;

		foreach(lc, context->key_exprs)
			if (equal(node, lfirst(lc)))
				return key_var(context->plan, foreach_current_index(lc));
		elog(ERROR, "unexpected column in a condition on windows");
	}
	return expression_tree_mutator(node, window_keys_mutator, (void *) context);
}

/* The grouping sets, and their number as a key. */
static void
add_grouping_sets(WeirViewPlan *plan, Query *query, FinalContext *context)
{
	List *sets =
		expand_grouping_sets(query->groupingSets, query->groupDistinct, -1);
	Node *number = int4_const(0);
	SortGroupClause clause = {.type = T_SortGroupClause};
	ListCell *lc;

	/* GROUP BY () */
	if (query->groupClause == NIL && list_length(sets) == 1)
	{
		plan->grouped = false;
		return;
	}
	plan->nsets = list_length(sets);
	plan->set_keys = palloc0(sizeof(Bitmapset *) * plan->nsets);
	foreach(lc, sets)
	{
		ListCell *lr;

		foreach(lr, (List *) lfirst(lc))
			plan->set_keys[foreach_current_index(lc)] = bms_add_member(
				plan->set_keys[foreach_current_index(lc)],
				list_position_int(context->key_refs, lfirst_int(lr)));
	}
	get_sort_group_operators(INT4OID, true, true, false, &clause.sortop,
							 &clause.eqop, NULL, &clause.hashable);
	(void) add_input_column(plan, number, "set");
	set_key(&plan->keys[plan->nkeys++], number, &clause);
}

/* Fills everything of the plan that the analysed query tells. */
static void
split_query(WeirViewPlan *plan, Query *query)
{
	Query *input = copyObject(query);
	List *targetlist = query->targetList;
	Node *having = query->havingQual;
	FinalContext context = {plan, NIL, NIL};
	ListCell *lc;
	List *final = NIL;
	List *window_quals;
	int i = 0;

	/* columns of a JOIN ... USING, as parse analysis compared them */
	targetlist = (List *) weir_flatten_join_vars(query, (Node *) targetlist);
	having = weir_flatten_join_vars(query, having);

	input->targetList = NIL;
	input->havingQual = NULL;
	input->groupClause = NIL;
	input->groupDistinct = false;
	input->groupingSets = NIL;
	input->hasAggs = false;
	input->queryId = 0;
	plan->input = input;
	window_quals = take_window_quals(input);

	plan->grouped = query->groupClause != NIL || query->groupingSets != NIL;
	plan->nkeys = list_length(query->groupClause);
	plan->keys = palloc0(sizeof(WeirKey) * (plan->nkeys + 2));
	foreach(lc, query->groupClause)
	{
		SortGroupClause *clause = lfirst_node(SortGroupClause, lc);
		Node *expr = get_sortgroupclause_expr(clause, targetlist);

		(void) add_input_column(plan, expr, "key");
		set_key(&plan->keys[i++], expr, clause);
		context.key_exprs = lappend(context.key_exprs, expr);
		context.key_refs =
			lappend_int(context.key_refs, clause->tleSortGroupRef);
	}
	if (window_quals != NIL)
	{
		add_window_keys(plan, window_quals, &context.key_exprs);
		plan->window_quals = planned(window_keys_mutator(
			(Node *) make_ands_explicit(list_copy(window_quals)), &context));
		if (having != NULL)
			window_quals = lappend(window_quals, having);
		having = (Node *) make_ands_explicit(window_quals);
	}
	if (query->groupingSets != NIL)
		add_grouping_sets(plan, query, &context);

	plan->column_key = palloc(sizeof(int) * (list_length(targetlist) + 1));
	foreach(lc, targetlist)
	{
		TargetEntry *tle = lfirst_node(TargetEntry, lc);
		Node *expr;
		int n = list_length(final);

		if (tle->resjunk)
			continue;
		expr = final_mutator((Node *) tle->expr, &context);
		plan->column_key[n] = -1;
		if (IsA(expr, Var) && ((Var *) expr)->varattno <= plan->nkeys)
			plan->column_key[n] = ((Var *) expr)->varattno - 1;
		final = lappend(final, makeTargetEntry((Expr *) planned(expr), n + 1,
											   tle->resname, false));
	}
	plan->targetlist = final;
	if (having != NULL)
		plan->having = planned(final_mutator(having, &context));

	/* direct arguments of ordered-set aggregates refer to keys only */
	foreach(lc, plan->aggs)
	{
		Aggref *aggref = ((WeirAggSpec *) lfirst(lc))->aggref;

		aggref->aggdirectargs = (List *) planned(
			final_mutator((Node *) aggref->aggdirectargs, &context));
	}
	plan->ninputs = list_length(input->targetList);
	make_final_desc(plan);
}


/* ---------- entry points ---------- */

/* The call that gives the first window only. */
static FuncExpr *
first_window_call(FuncExpr *call, const WindowFunction *function)
{
	HeapTuple tup = SearchSysCache1(PROCOID, ObjectIdGetDatum(call->funcid));
	FuncExpr *first = copyObject(call);
	Oid types[FUNC_MAX_ARGS];
	ListCell *lc;

	if (!HeapTupleIsValid(tup))
		elog(ERROR, "cache lookup failed for function %u", call->funcid);
	first->args =
		expand_function_arguments(call->args, false, call->funcresulttype, tup);
	ReleaseSysCache(tup);
	foreach(lc, first->args)
		types[foreach_current_index(lc)] = exprType(lfirst(lc));
	first->funcid = LookupFuncName(
		list_make2(makeString("weir"), makeString(pstrdup(function->first))),
		list_length(first->args), types, false);
	return first;
}

static bool
takes_date(const FuncExpr *call)
{
	return call->args != NIL && exprType(linitial(call->args)) == DATEOID;
}

/* Let window functions give a row its first window. */
static void
use_first_windows(Query *query)
{
	ListCell *lc;
	ListCell *lf;

	check_stack_depth();
	foreach(lc, query->cteList)
		use_first_windows(
			castNode(Query, lfirst_node(CommonTableExpr, lc)->ctequery));
	foreach(lc, query->rtable)
	{
		RangeTblEntry *rte = lfirst_node(RangeTblEntry, lc);

		if (rte->rtekind == RTE_SUBQUERY)
			use_first_windows(rte->subquery);
		if (rte->rtekind != RTE_FUNCTION)
			continue;
		foreach(lf, rte->functions)
		{
			RangeTblFunction *f = lfirst_node(RangeTblFunction, lf);
			const WindowFunction *function = window_function(f->funcexpr);

			if (function != NULL && takes_date((FuncExpr *) f->funcexpr))
				weir_window_refuse_date();
			if (function != NULL && function->first != NULL)
				f->funcexpr = (Node *) first_window_call(
					(FuncExpr *) f->funcexpr, function);
		}
	}
}

/* now() as the time of a window is the arrival of the event. */
static Node *
use_arrival_mutator(Node *node, void *context)
{
	FuncExpr *call = (FuncExpr *) node;

	if (node == NULL)
		return NULL;
	if (IsA(node, Query))
		return (Node *) query_tree_mutator((Query *) node, use_arrival_mutator,
										   context, 0);
	if (IsA(node, FuncExpr) && window_function(node) != NULL &&
		is_now(linitial(call->args)))
	{
		Oid arrival = LookupFuncName(
			list_make2(makeString("weir"), makeString("arrival")), 0, NULL,
			false);

		call = copyObject(call);
		linitial(call->args) =
			makeFuncExpr(arrival, TIMESTAMPTZOID, NIL, InvalidOid, InvalidOid,
						 COERCE_EXPLICIT_CALL);
		return (Node *) call;
	}
	return expression_tree_mutator(node, use_arrival_mutator, context);
}

static Query *
rewrite(Query *query)
{
	List *rewritten;

	AcquireRewriteLocks(query, true, false);
	rewritten = QueryRewrite(query);
	if (list_length(rewritten) != 1)
		elog(ERROR, "unexpected rewrite result for a view's query");
	return linitial_node(Query, rewritten);
}

static Query *
rewrite_input(const WeirViewPlan *plan)
{
	Query *query = rewrite(copyObject(plan->input));

	return castNode(Query, use_arrival_mutator((Node *) query, NULL));
}

/*
 * The planner may call functions of the view, and those run queries of their
 * own, of the same stream too.
 */
static const Query *planning = NULL;

bool
weir_plan_is_input_query(const Query *query)
{
	return planning != NULL && query == planning;
}

bool
weir_plan_is_input(const PlannerInfo *root)
{
	while (root->parent_root != NULL)
		root = root->parent_root;
	return weir_plan_is_input_query(root->parse);
}

static PlannedStmt *
plan_rewritten(Query *query)
{
	const Query *volatile outer = planning;
	volatile bool pushed = false;
	PlannedStmt *volatile stmt = NULL;

	if (!ActiveSnapshotSet())
	{
		PushActiveSnapshot(GetTransactionSnapshot());
		pushed = true;
	}
	use_first_windows(query);
	PG_TRY();
	{
		planning = query;
		stmt = pg_plan_query(query, "continuous view", 0, NULL);
	}
	PG_FINALLY();
	{
		planning = outer;
	}
	PG_END_TRY();
	if (pushed)
		PopActiveSnapshot();
	return stmt;
}

/* A copy of the view's query, after the first look at it. */
static Query *
checked_top(Query *query, Oid view, Oid owner)
{
	query = copyObject(query);
	weir_flatten_group_vars(query);
	drop_rule_entries(query, view);
	/* whoever owned the view when its rule was read: this owner's rights count */
	setRuleCheckAsUser((Node *) query, owner);

	check_top(query);
	(void) check_functions_walker((Node *) query->targetList, NULL);
	(void) check_functions_walker(query->havingQual, NULL);
	return query;
}

WeirViewPlan *
weir_plan_query(Query *query, Oid view, Oid owner, bool notice)
{
	WeirViewPlan *plan = palloc0(sizeof(WeirViewPlan));
	FromItems items = {NIL, NIL, 0};
	PlanFacts facts;
	Query *rewritten;
	Relation stream;
	WeirStreamOptions options;
	MemoryContext plan_cxt;
	MemoryContext old;
	int column = -1;

	query = checked_top(query, view, owner);
	plan->view = view;
	plan->owner = owner;
	if (OidIsValid(view))
		plan->settings = weir_catalog_view_options(view)->settings;
	split_query(plan, query);

	/* what is only looked at does not stay with the plan, which may be cached */
	plan_cxt = AllocSetContextCreate(CurrentMemoryContext, "weir planning",
									 ALLOCSET_DEFAULT_SIZES);
	old = MemoryContextSwitchTo(plan_cxt);

	rewritten = rewrite_input(plan);
	check_from_query(rewritten, NULL, true, &items);
	plan->stream = check_relations(&items, owner);
	(void) check_functions_walker((Node *) rewritten, WINDOWS_OVER_ARRIVAL);
	if (items.nwindows > 0 && !plan->grouped)
		ereport(
			ERROR,
			(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
			 errmsg("continuous view does not group by its window"),
			 errhint("window_start or window_end stands bare in GROUP BY.")));

	check_plan(plan_rewritten(rewritten), plan->stream, &facts);
	stream = table_open(plan->stream, AccessShareLock);
	options = *weir_catalog_stream_options(stream);
	recognise_windows(plan, &facts, &options, items.nwindows, notice);

	MemoryContextSwitchTo(old);
	while ((column = bms_next_member(facts.columns, column)) >= 0)
	{
		if (column > 0)
			plan->stream_columns = bms_add_member(plan->stream_columns, column);
		else
			plan->stream_columns = bms_add_range(
				plan->stream_columns, 1, RelationGetNumberOfAttributes(stream));
	}
	table_close(stream, NoLock);
	MemoryContextDelete(plan_cxt);
	return plan;
}

Query *
weir_plan_view_query(Oid view)
{
	Relation rel = relation_open(view, AccessShareLock);
	RewriteRule *rule;
	Query *query;

	if (rel->rd_rel->relkind != RELKIND_MATVIEW || rel->rd_rules == NULL ||
		rel->rd_rules->numLocks != 1)
		ereport(ERROR, (errcode(ERRCODE_WRONG_OBJECT_TYPE),
						errmsg("\"%s\" is not a continuous view",
							   RelationGetRelationName(rel))));
	rule = rel->rd_rules->rules[0];
	if (rule->event != CMD_SELECT || list_length(rule->actions) != 1)
		elog(ERROR, "unexpected rule on continuous view \"%s\"",
			 RelationGetRelationName(rel));
	query = copyObject(linitial_node(Query, rule->actions));
	relation_close(rel, NoLock);
	return query;
}

/* ---- rights ---- */

static bool
check_execute(Oid func, void *context)
{
	Oid role = *(Oid *) context;

	if (weir_proc_aclcheck(func, role, ACL_EXECUTE) != ACLCHECK_OK)
		aclcheck_error(ACLCHECK_NO_PRIV, OBJECT_FUNCTION, get_func_name(func));
	return false;
}

static bool
check_rights_walker(Node *node, void *context)
{
	if (node == NULL)
		return false;
	(void) check_functions_in_node(node, check_execute, context);
	if (IsA(node, Query))
	{
		Query *query = (Query *) node;

		(void) weir_check_permissions(query);
		return query_tree_walker(query, check_rights_walker, context, 0);
	}
	return expression_tree_walker(node, check_rights_walker, context);
}

static void
check_trigger_right(Oid stream, Oid owner)
{
	if (pg_class_aclcheck(stream, owner, ACL_TRIGGER) != ACLCHECK_OK)
		ereport(
			ERROR,
			(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
			 errmsg("permission denied for stream \"%s\"",
					get_rel_name(stream)),
			 errdetail(
				 "Role \"%s\" lacks the TRIGGER privilege that a continuous view needs.",
				 GetUserNameFromId(owner, false)),
			 errhint("GRANT SELECT, TRIGGER on the stream to that role.")));
}

void
weir_plan_check_rights(const WeirViewPlan *plan)
{
	Oid owner = plan->owner;
	ListCell *lc;

	check_trigger_right(plan->stream, owner);
	(void) check_rights_walker((Node *) rewrite_input(plan), &owner);
	(void) check_rights_walker((Node *) plan->targetlist, &owner);
	(void) check_rights_walker(plan->having, &owner);
	foreach(lc, plan->aggs)
	{
		Aggref *aggref = ((WeirAggSpec *) lfirst(lc))->aggref;

		check_execute(aggref->aggfnoid, &owner);
		(void) check_rights_walker((Node *) aggref->aggdirectargs, &owner);
	}
}

Oid
weir_plan_find_stream(Query *query, Oid view, Oid owner)
{
	FromItems items = {NIL, NIL, 0};
	Query *rewritten = rewrite(checked_top(query, view, owner));
	Oid stream;

	check_from_query(rewritten, NULL, true, &items);
	stream = check_relations(&items, owner);
	check_trigger_right(stream, owner);
	(void) check_rights_walker((Node *) rewritten, &owner);
	return stream;
}

PlannedStmt *
weir_plan_input(const WeirViewPlan *plan)
{
	PlanFacts facts;
	PlannedStmt *stmt = plan_rewritten(rewrite_input(plan));

	check_plan(stmt, plan->stream, &facts);
	return stmt;
}
