/*-------------------------------------------------------------------------
 *
 * window_query.c
 *	  session() and count_window() in ordinary queries: what a continuous view
 *	  would show, computed from all rows at once.
 *
 * Before planning, a query level whose FROM holds one of them,
 *
 *		SELECT k, window_start, window_end, agg(v) FROM t, session(ts, gap)
 *		WHERE cond GROUP BY k, window_start, window_end HAVING ...
 *
 * is split in two.  FROM and WHERE go, without the function, into a subquery
 * that finds each row's window by window functions over the other GROUP BY
 * keys; all else stays where it is and reads the subquery:
 *
 *		SELECT k, window_start, window_end, agg(v) FROM
 *			(SELECT k, v, weir.session_start(ts, gap) OVER w AS window_start,
 *				weir.session_end(ts, gap) OVER w AS window_end
 *			 FROM t WHERE cond WINDOW w AS (PARTITION BY k ORDER BY ts)) session
 *		GROUP BY k, window_start, window_end HAVING ...
 *
 * For count_window() w is (PARTITION BY k ORDER BY weir.log_order(...)), the
 * rows are counted by row_number() and, for window_end, by count(*) over the
 * whole partition.  With a slide a row is in several windows: those are joined
 * to it, LATERAL weir.count_windows(), with the window's number as one more
 * key, because windows that begin before the first row share their start, and
 * unfinished ones their end, and still are a row each.
 *
 * GROUP BY expressions are found inside larger ones as parse analysis did, by
 * equal() on subtrees, top down.
 *
 * The input query of a continuous view is left alone: views have windows of
 * their own (plan.c), and SQL functions that are inlined later are not seen:
 * there the functions raise, and say what to do.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/sysattr.h"
#include "access/transam.h"
#include "catalog/pg_class.h"
#include "catalog/pg_inherits.h"
#include "catalog/pg_language.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/optimizer.h"
#include "optimizer/planner.h"
#include "optimizer/tlist.h"
#include "parser/parse_clause.h"
#include "parser/parse_oper.h"
#include "parser/parse_relation.h"
#include "parser/parsetree.h"
#include "rewrite/rewriteManip.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"

#include "catalog.h"
#include "compat.h"
#include "plan.h"
#include "window_query.h"
#include "window_rows.h"

/* Range table of the level once it is split. */
#define INNER_VARNO	  1
#define WINDOWS_VARNO 2

/* Columns of the functions in FROM. */
#define WINDOW_START  1
#define WINDOW_END	  2
#define WINDOW_NUMBER 3 /* weir.count_windows() only */

typedef enum WindowFunction
{
	NO_WINDOW,
	SESSION,
	COUNT_WINDOW
} WindowFunction;

/* A query and those around it, for references to CTEs. */
typedef struct QueryLevel
{
	Query *query;
	struct QueryLevel *up;
} QueryLevel;

/* A level that is being split. */
typedef struct Split
{
	WindowFunction function;
	const char *name; /* for messages */
	Index rti;		  /* of the function in FROM */
	QueryLevel *level;
	Query *outer;
	Query *inner;
	List *keys;		/* TargetEntry in inner: GROUP BY expressions
				 * that are not of the window */
	Index last_ref; /* ressortgroupref given in inner */

	/* session() */
	Oid time_type;
	Node *time;
	Node *gap;

	/* count_window() */
	Node *size;
	Node *slide; /* NULL: no slide; then INNER_VARNO only */
	bool end_wanted;

	int depth; /* of the expression being rewritten */
} Split;

static planner_hook_type prev_planner_hook = NULL;


/* ---------- recognising ---------- */

/*
 * Which of the two functions, if any.  By the name of the C function, which is
 * the same whatever the schema and the argument types.
 */
static WindowFunction
window_function(Node *node)
{
	FuncExpr *call = (FuncExpr *) node;
	WindowFunction result = NO_WINDOW;
	HeapTuple tup;
	Datum prosrc;
	bool isnull;

	if (node == NULL || !IsA(node, FuncExpr) || !call->funcretset ||
		call->funcid < FirstNormalObjectId)
		return NO_WINDOW;
	tup = SearchSysCache1(PROCOID, ObjectIdGetDatum(call->funcid));
	if (!HeapTupleIsValid(tup))
		return NO_WINDOW;
	if (((Form_pg_proc) GETSTRUCT(tup))->prolang == ClanguageId)
	{
		prosrc = SysCacheGetAttr(PROCOID, tup, Anum_pg_proc_prosrc, &isnull);
		if (!isnull)
		{
			char *symbol = TextDatumGetCString(prosrc);

			if (strcmp(symbol, "weir_session") == 0)
				result = SESSION;
			else if (strcmp(symbol, "weir_count_window") == 0)
				result = COUNT_WINDOW;
		}
	}
	ReleaseSysCache(tup);
	return result;
}

static WindowFunction
window_function_of_rte(RangeTblEntry *rte)
{
	ListCell *lc;

	if (rte->rtekind != RTE_FUNCTION)
		return NO_WINDOW;
	foreach(lc, rte->functions)
	{
		WindowFunction f =
			window_function(lfirst_node(RangeTblFunction, lc)->funcexpr);

		if (f != NO_WINDOW)
			return f;
	}
	return NO_WINDOW;
}

/* Does the query hold one of them at any level? */
static bool
mentions_walker(Node *node, void *context)
{
	if (node == NULL)
		return false;
	if (IsA(node, Query))
	{
		Query *query = (Query *) node;
		ListCell *lc;

		foreach(lc, query->rtable)
		{
			RangeTblEntry *rte = lfirst_node(RangeTblEntry, lc);

			if (window_function_of_rte(rte) != NO_WINDOW ||
				(rte->rtekind == RTE_SUBQUERY &&
				 mentions_walker((Node *) rte->subquery, context)))
				return true;
		}
		foreach(lc, query->cteList)
		{
			if (mentions_walker(lfirst_node(CommonTableExpr, lc)->ctequery,
								context))
				return true;
		}
		/* only sublinks can hide more queries: most statements end here */
		return query->hasSubLinks &&
			   query_tree_walker(query, mentions_walker, context,
								 QTW_IGNORE_RT_SUBQUERIES |
									 QTW_IGNORE_CTE_SUBQUERIES);
	}
	return expression_tree_walker(node, mentions_walker, context);
}


/* ---------- refusals ---------- */

pg_noreturn static void
refuse_no_group(Split *s)
{
	ereport(
		ERROR,
		(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
		 errmsg("%s() needs GROUP BY window_start or window_end", s->name),
		 errdetail(
			 "Which window a row is in depends on other rows of its group."),
		 errhint(
			 "The column stands bare in GROUP BY of the query whose FROM has %s().",
			 s->name)));
}

pg_noreturn static void
refuse_in_where(Split *s)
{
	ereport(ERROR,
			(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
			 errmsg("columns of %s() cannot be used in WHERE or ON", s->name),
			 errdetail("Windows are made of the rows that WHERE has left."),
			 errhint("Use HAVING.")));
}

pg_noreturn static void
refuse_in_from(Split *s)
{
	ereport(ERROR, (errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					errmsg("columns of %s() cannot be used in FROM", s->name),
					errhint("Group in a subquery, and use its result.")));
}

/* Two functions, ROWS FROM, WITH ORDINALITY. */
pg_noreturn static void
refuse_combination(const char *name)
{
	ereport(
		ERROR,
		(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
		 errmsg(
			 "%s() cannot be combined with another window function in FROM, ROWS FROM or WITH ORDINALITY",
			 name),
		 errhint("Use one of them in each query.")));
}

pg_noreturn static void
refuse_order(void)
{
	ereport(
		ERROR,
		(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
		 errmsg("count_window() needs the rows of a single stream"),
		 errdetail("Other rows have no order in which to count them."),
		 errhint(
			 "Use a table created with USING stream, or a plain SELECT from one, and nothing else in FROM. For other tables number the rows with row_number() OVER (... ORDER BY ...).")));
}


/* ---------- what refers to the window ---------- */

typedef struct ReferenceContext
{
	Query *query;
	Index rti;
	int depth;
} ReferenceContext;

static bool
reference_walker(Node *node, ReferenceContext *context)
{
	if (node == NULL)
		return false;
	if (IsA(node, Var))
	{
		Var *var = (Var *) node;
		RangeTblEntry *rte;
		ReferenceContext alias = *context;

		if ((int) var->varlevelsup != context->depth)
			return false;
		if (var->varno == context->rti)
			return true;
		rte = rt_fetch(var->varno, context->query->rtable);
		if (rte->rtekind != RTE_JOIN || var->varattno < 0)
			return false;
		/* a column of an alias of a join */
		alias.depth = 0;
		return reference_walker(
			var->varattno == 0
				? (Node *) rte->joinaliasvars
				: list_nth(rte->joinaliasvars, var->varattno - 1),
			&alias);
	}
	if (IsA(node, Query))
	{
		bool result;

		context->depth++;
		result = query_tree_walker((Query *) node, reference_walker,
								   (void *) context, QTW_IGNORE_JOINALIASES);
		context->depth--;
		return result;
	}
	return expression_tree_walker(node, reference_walker, (void *) context);
}

static bool
refers_to_window(Split *s, Node *node)
{
	ReferenceContext context = {s->outer, s->rti, 0};

	return reference_walker(node, &context);
}

/* WHERE, ON and the rest of FROM must not. */
static void
check_references(Split *s)
{
	ReferenceContext context = {s->outer, s->rti, 0};

	if (refers_to_window(s, (Node *) s->outer->jointree))
		refuse_in_where(s);
	if (range_table_walker(s->outer->rtable, reference_walker,
						   (void *) &context, QTW_IGNORE_JOINALIASES))
		refuse_in_from(s);
}

/* Does ON let every row through? */
static bool
is_true(Node *quals)
{
	return quals == NULL ||
		   (IsA(quals, Const) && !((Const *) quals)->constisnull &&
			DatumGetBool(((Const *) quals)->constvalue));
}

/*
 * The function gives each row a window, so where it stands in FROM does not
 * matter, unless rows get there that have none: null-extended ones.
 */
static bool
check_place(Split *s, Node *node, bool nullable)
{
	ListCell *lc;

	if (IsA(node, FromExpr))
	{
		foreach(lc, ((FromExpr *) node)->fromlist)
		{
			if (check_place(s, lfirst(lc), nullable))
				return true;
		}
		return false;
	}
	if (IsA(node, JoinExpr))
	{
		JoinExpr *join = (JoinExpr *) node;
		bool left = nullable || join->jointype == JOIN_RIGHT ||
					join->jointype == JOIN_FULL;
		bool right = nullable || join->jointype == JOIN_FULL;

		if (join->jointype == JOIN_LEFT)
			right =
				right || !IsA(join->rarg, RangeTblRef) || !is_true(join->quals);
		return check_place(s, join->larg, left) ||
			   check_place(s, join->rarg, right);
	}
	if (castNode(RangeTblRef, node)->rtindex != s->rti)
		return false;
	if (nullable)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("%s() cannot be on the nullable side of an outer join",
						s->name),
				 errdetail("Rows without a partner would be in no window."),
				 errhint("Separate it from the join by a comma in FROM.")));
	return true;
}


/* ---------- the subquery ---------- */

/* A column of the subquery; name: for EXPLAIN, NULL if it is nothing special. */
static TargetEntry *
inner_entry(Split *s, Expr *expr, const char *name)
{
	TargetEntry *tle = tlist_member(expr, s->inner->targetList);
	Var *var = (Var *) expr;

	if (tle != NULL)
		return tle;
	if (IsA(expr, Var) && var->varattno > 0)
		name = get_rte_attribute_name(rt_fetch(var->varno, s->inner->rtable),
									  var->varattno);
	tle = makeTargetEntry(expr, list_length(s->inner->targetList) + 1,
						  pstrdup(name ? name : "?column?"), false);
	s->inner->targetList = lappend(s->inner->targetList, tle);
	return tle;
}

/* ... as seen from the outer query. */
static Node *
inner_var(Split *s, const TargetEntry *tle)
{
	Node *expr = (Node *) tle->expr;

	return (Node *) makeVar(INNER_VARNO, tle->resno, exprType(expr),
							exprTypmod(expr), exprCollation(expr), s->depth);
}

static Index
sort_group_ref(Split *s, TargetEntry *tle)
{
	if (tle->ressortgroupref == 0)
		tle->ressortgroupref = ++s->last_ref;
	return tle->ressortgroupref;
}

static Node *
window_call(Oid func, Oid type, List *args, Index winref)
{
	WindowFunc *call = makeNode(WindowFunc);

	call->winfnoid = func;
	call->wintype = type;
	call->args = args;
	call->winref = winref;
	call->winstar = func == F_COUNT_;
	call->winagg = func == F_COUNT_;
	call->location = -1;
	return (Node *) call;
}

/* winref 1: in order; 2: the whole partition. */
static void
add_window_clause(Split *s, List *partition, TargetEntry *order)
{
	WindowClause *window = makeNode(WindowClause);

	window->winref = list_length(s->inner->windowClause) + 1;
	window->frameOptions = FRAMEOPTION_DEFAULTS;
	window->partitionClause = copyObject(partition);
	if (order != NULL)
	{
		SortGroupClause *sort = makeNode(SortGroupClause);
		bool hashable;

		get_sort_group_operators(exprType((Node *) order->expr), true, true,
								 false, &sort->sortop, &sort->eqop, NULL,
								 &hashable);
		sort->hashable = hashable;
		sort->tleSortGroupRef = sort_group_ref(s, order);
		window->orderClause = list_make1(sort);
	}
	s->inner->windowClause = lappend(s->inner->windowClause, window);
}

/* A function of schema weir, found without asking who may use the schema. */
static Oid
weir_function(const char *name, int nargs, const Oid *types)
{
	Oid func = GetSysCacheOid3(PROCNAMEARGSNSP, Anum_pg_proc_oid,
							   CStringGetDatum(name),
							   PointerGetDatum(buildoidvector(types, nargs)),
							   ObjectIdGetDatum(weir_catalog_schema()));

	if (!OidIsValid(func))
		ereport(
			ERROR,
			(errcode(ERRCODE_UNDEFINED_FUNCTION),
			 errmsg("function weir.%s is missing", name),
			 errhint(
				 "Use ALTER EXTENSION pg_weir UPDATE, or create it anew.")));
	return func;
}

static Node *
weir_call(const char *name, Oid rettype, List *args)
{
	Oid types[4];
	int n = 0;
	ListCell *lc;

	foreach(lc, args)
		types[n++] = exprType(lfirst(lc));
	return (Node *) makeFuncExpr(weir_function(name, n, types), rettype, args,
								 InvalidOid, InvalidOid, COERCE_EXPLICIT_CALL);
}

/* A column of the window, as an expression in the subquery. */
static Node *
inner_window_column(Split *s, AttrNumber attno)
{
	Node *row;
	Node *rows;

	if (s->function == SESSION)
	{
		Oid types[2] = {s->time_type, INTERVALOID};

		return window_call(weir_function(attno == WINDOW_START ? "session_start"
															   : "session_end",
										 2, types),
						   s->time_type,
						   list_make2(copyObject(s->time), copyObject(s->gap)),
						   1);
	}
	row = window_call(F_ROW_NUMBER, INT8OID, NIL, 1);
	if (attno == WINDOW_START)
		return weir_call("count_window_start", INT8OID,
						 list_make2(row, copyObject(s->size)));
	rows = window_call(F_COUNT_, INT8OID, NIL, 2);
	return weir_call("count_window_end", INT8OID,
					 list_make3(row, rows, copyObject(s->size)));
}

/* A column of the window in the outer query. */
static Node *
window_column(Split *s, AttrNumber attno)
{
	if (s->slide == NULL)
		return inner_var(
			s,
			inner_entry(s, (Expr *) inner_window_column(s, attno),
						attno == WINDOW_START ? "window_start" : "window_end"));
	if (attno == WINDOW_END)
		s->end_wanted = true;
	return (Node *) makeVar(WINDOWS_VARNO, attno, INT8OID, -1, InvalidOid,
							s->depth);
}

/* Expressions over FROM -> the same over the subquery. */
static Node *
outer_mutator(Node *node, Split *s)
{
	ListCell *lc;

	if (node == NULL)
		return NULL;
	if (s->depth == 0)
	{
		foreach(lc, s->keys)
		{
			TargetEntry *key = lfirst_node(TargetEntry, lc);

			if (equal(node, key->expr))
				return inner_var(s, key);
		}
	}
	if (IsA(node, Var))
	{
		Var *var = (Var *) node;

		if ((int) var->varlevelsup != s->depth)
			return (Node *) copyObject(var);
		if (var->varno == s->rti && var->varattno == 0)
		{
			RowExpr *row = makeNode(RowExpr);
			RangeTblEntry *rte = rt_fetch(s->rti, s->inner->rtable);

			row->args = list_make2(window_column(s, WINDOW_START),
								   window_column(s, WINDOW_END));
			row->row_typeid = RECORDOID;
			row->row_format = COERCE_IMPLICIT_CAST;
			row->colnames = copyObject(rte->eref->colnames);
			row->location = -1;
			return (Node *) row;
		}
		if (var->varno == s->rti)
			return window_column(s, var->varattno);
		var = copyObject(var);
		var->varlevelsup = 0;
		return inner_var(s, inner_entry(s, (Expr *) var, NULL));
	}
	if (IsA(node, Query))
	{
		Node *result;

		s->depth++;
		result = (Node *) query_tree_mutator((Query *) node, outer_mutator,
											 (void *) s, 0);
		s->depth--;
		return result;
	}
	return expression_tree_mutator(node, outer_mutator, (void *) s);
}

/*
 * References to the CTEs of the level that has become the subquery: those stay
 * one level above.
 */
static bool
deepen_ctes_walker(Node *node, int *depth)
{
	if (node == NULL)
		return false;
	if (IsA(node, RangeTblEntry))
	{
		RangeTblEntry *rte = (RangeTblEntry *) node;

		if (rte->rtekind == RTE_CTE && (int) rte->ctelevelsup == *depth)
			rte->ctelevelsup++;
		return false;
	}
	if (IsA(node, Query))
	{
		(*depth)++;
		query_tree_walker((Query *) node, deepen_ctes_walker, (void *) depth,
						  QTW_EXAMINE_RTES_BEFORE);
		(*depth)--;
		return false;
	}
	return expression_tree_walker(node, deepen_ctes_walker, (void *) depth);
}


/* ---------- log order ---------- */

static Node *log_order(QueryLevel *level, Index skip);

/* The one item of FROM that is not skipped; 0: there are more, or none. */
static Index
only_item(Node *node, Index skip)
{
	Index found = 0;
	List *items;
	ListCell *lc;

	if (IsA(node, RangeTblRef))
		return ((RangeTblRef *) node)->rtindex;
	if (IsA(node, JoinExpr))
		items =
			list_make2(((JoinExpr *) node)->larg, ((JoinExpr *) node)->rarg);
	else
		items = castNode(FromExpr, node)->fromlist;
	foreach(lc, items)
	{
		Index item = only_item(lfirst(lc), skip);

		if (item == 0)
			return 0;
		if (item == skip)
			continue;
		if (found != 0)
			return 0;
		found = item;
	}
	/* nothing but what is skipped */
	return found != 0 ? found : (items != NIL ? skip : 0);
}

/* A CTE is read as the subquery that it is. */
static void
inline_cte(QueryLevel *level, RangeTblEntry *rte)
{
	QueryLevel *owner = level;
	CommonTableExpr *cte = NULL;
	Query *query;
	ListCell *lc;

	for (Index i = 0; i < rte->ctelevelsup; i++)
		owner = owner->up;
	foreach(lc, owner->query->cteList)
	{
		cte = lfirst_node(CommonTableExpr, lc);
		if (strcmp(cte->ctename, rte->ctename) == 0)
			break;
	}
	if (cte == NULL || cte->cterecursive || rte->self_reference ||
		cte->ctematerialized == CTEMaterializeAlways ||
		!IsA(cte->ctequery, Query) ||
		((Query *) cte->ctequery)->commandType != CMD_SELECT ||
		contain_volatile_functions(cte->ctequery))
		refuse_order();

	query = (Query *) copyObject(cte->ctequery);
	if (rte->ctelevelsup > 0)
		IncrementVarSublevelsUp((Node *) query, rte->ctelevelsup, 1);
	cte->cterefcount--;
	rte->rtekind = RTE_SUBQUERY;
	rte->subquery = query;
	rte->security_barrier = false;
	rte->ctename = NULL;
	rte->ctelevelsup = 0;
	rte->self_reference = false;
	rte->coltypes = NIL;
	rte->coltypmods = NIL;
	rte->colcollations = NIL;
}

static bool
whole_row_walker(Node *node, ReferenceContext *context)
{
	if (node == NULL)
		return false;
	if (IsA(node, Var))
	{
		Var *var = (Var *) node;

		return (int) var->varlevelsup == context->depth &&
			   var->varno == context->rti && var->varattno == 0;
	}
	if (IsA(node, Query))
	{
		bool result;

		context->depth++;
		result = query_tree_walker((Query *) node, whole_row_walker,
								   (void *) context, 0);
		context->depth--;
		return result;
	}
	return expression_tree_walker(node, whole_row_walker, (void *) context);
}

/* The log order of the rows of a subquery, as one more column of it. */
static Node *
subquery_log_order(QueryLevel *level, Index rti, RangeTblEntry *rte)
{
	Query *query = rte->subquery;
	QueryLevel below = {query, level};
	ReferenceContext context = {level->query, rti, 0};
	TargetEntry *tle;
	List *columns = NIL;
	ListCell *lc;

	if (query->commandType != CMD_SELECT || query->setOperations != NULL ||
		query->hasAggs || query->groupClause != NIL ||
		query->groupingSets != NIL || query->havingQual != NULL ||
		query->distinctClause != NIL || query->hasWindowFuncs ||
		query->hasTargetSRFs || query->limitCount != NULL ||
		query->limitOffset != NULL || query->rowMarks != NIL)
		refuse_order();
	/* it would show the column */
	if (query_tree_walker(level->query, whole_row_walker, (void *) &context, 0))
		ereport(
			ERROR,
			(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
			 errmsg(
				 "whole rows of a subquery cannot be used with count_window()"),
			 errhint("Name the columns.")));

	/* its order is not what counts */
	query->sortClause = NIL;
	foreach(lc, query->targetList)
	{
		tle = lfirst_node(TargetEntry, lc);
		tle->ressortgroupref = 0;
		if (!tle->resjunk)
			columns = lappend(columns, tle);
	}
	tle =
		makeTargetEntry((Expr *) log_order(&below, 0), list_length(columns) + 1,
						pstrdup("log_order"), false);
	query->targetList = lappend(columns, tle);
	rte->eref = copyObject(rte->eref);
	rte->eref->colnames =
		lappend(rte->eref->colnames, makeString(pstrdup("log_order")));
	return (Node *) makeVar(rti, tle->resno, INT8OID, -1, InvalidOid, 0);
}

/*
 * A number by which the rows of FROM sort as the stream's log orders them; or
 * a refusal.
 */
static Node *
log_order(QueryLevel *level, Index skip)
{
	Index rti = only_item((Node *) level->query->jointree, skip);
	RangeTblEntry *rte;

	check_stack_depth();
	if (rti == 0 || rti == skip)
		refuse_order();
	rte = rt_fetch(rti, level->query->rtable);
	if (rte->rtekind == RTE_CTE)
		inline_cte(level, rte);
	if (rte->rtekind == RTE_SUBQUERY)
		return subquery_log_order(level, rti, rte);
	if (rte->rtekind != RTE_RELATION || rte->relkind != RELKIND_RELATION ||
		!weir_catalog_is_stream_oid(rte->relid) ||
		(rte->inh && find_inheritance_children(rte->relid, NoLock) != NIL))
		refuse_order();
	return weir_call(
		"log_order", INT8OID,
		list_make2(makeConst(REGCLASSOID, -1, InvalidOid, sizeof(Oid),
							 ObjectIdGetDatum(rte->relid), false, true),
				   makeVar(rti, SelfItemPointerAttributeNumber, TIDOID, -1,
						   InvalidOid, 0)));
}


/* ---------- splitting ---------- */

/* An argument that is the same for all rows; checked later if not yet known. */
static Node *
constant_argument(Split *s, List *args, int n, const char *what)
{
	Node *arg = list_nth(args, n);

	if (contain_vars_of_level(arg, 0) || contain_volatile_functions(arg))
		ereport(ERROR, (errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
						errmsg("%s of %s() must be constant", what, s->name),
						errhint("Write it as a literal or a parameter.")));
	return eval_const_expressions(NULL, arg);
}

static bool
is_null(Node *node)
{
	return IsA(node, Const) && ((Const *) node)->constisnull;
}

static bool
is_value(Node *node)
{
	return IsA(node, Const) && !((Const *) node)->constisnull;
}

static void
read_arguments(Split *s, FuncExpr *call)
{
	HeapTuple tup = SearchSysCache1(PROCOID, ObjectIdGetDatum(call->funcid));
	List *args;
	AclResult acl = weir_proc_aclcheck(call->funcid, GetUserId(), ACL_EXECUTE);

	if (acl != ACLCHECK_OK)
		aclcheck_error(acl, OBJECT_FUNCTION, s->name);
	if (!HeapTupleIsValid(tup))
		elog(ERROR, "cache lookup failed for function %u", call->funcid);
	args =
		expand_function_arguments(call->args, false, call->funcresulttype, tup);
	ReleaseSysCache(tup);

	if (s->function == SESSION)
	{
		s->time = linitial(args);
		s->time_type = exprType(s->time);
		s->gap = constant_argument(s, args, 1, "gap");
		if (contain_volatile_functions(s->time))
			ereport(ERROR,
					(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					 errmsg("time of %s() must not be volatile", s->name),
					 errhint("Compute it in a MATERIALIZED subquery.")));
		if (is_value(s->gap))
			(void) weir_session_gap(
				DatumGetIntervalP(((Const *) s->gap)->constvalue));
		return;
	}

	s->size = constant_argument(s, args, 0, "size");
	s->slide = constant_argument(s, args, 1, "slide");
	if (is_value(s->size))
	{
		int64 size = DatumGetInt64(((Const *) s->size)->constvalue);

		weir_count_window_check(
			size, is_value(s->slide)
					  ? DatumGetInt64(((Const *) s->slide)->constvalue)
					  : size);
	}
	/* each row is in one window: no need to join them */
	if (is_null(s->slide) || (IsA(s->slide, Const) && equal(s->slide, s->size)))
		s->slide = NULL;
}

/*
 * The GROUP BY expressions that are not of the window become columns of the
 * subquery; returns the PARTITION BY over them.
 */
static List *
split_keys(Split *s)
{
	List *partition = NIL;
	bool by_window = false;
	ListCell *lc;

	foreach(lc, s->outer->groupClause)
	{
		SortGroupClause *clause = lfirst_node(SortGroupClause, lc);
		Node *expr = get_sortgroupclause_expr(clause, s->outer->targetList);
		TargetEntry *tle;

		if (IsA(expr, Var) && ((Var *) expr)->varno == s->rti &&
			((Var *) expr)->varlevelsup == 0 && ((Var *) expr)->varattno > 0)
		{
			by_window = true;
			continue;
		}
		if (refers_to_window(s, expr))
		{
			ListCell *lv;

			/* of nothing but the window it may be: it splits none */
			foreach(lv, pull_vars_of_level(expr, 0))
			{
				Node *var = lfirst(lv);

				if (!IsA(var, Var) || ((Var *) var)->varno != s->rti)
					ereport(
						ERROR,
						(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
						 errmsg(
							 "columns of %s() cannot be mixed with others in a GROUP BY expression",
							 s->name),
						 errhint("Group by each of them.")));
			}
			continue;
		}
		if (expression_returns_set(expr))
			ereport(
				ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg(
					 "GROUP BY with %s() cannot use a set-returning function",
					 s->name),
				 errhint("Call it in FROM.")));
		tle = inner_entry(s, copyObject((Expr *) expr), NULL);
		s->keys = list_append_unique_ptr(s->keys, tle);
		clause = copyObject(clause);
		clause->tleSortGroupRef = sort_group_ref(s, tle);
		partition = lappend(partition, clause);
	}
	if (!by_window)
		refuse_no_group(s);
	return partition;
}

/* FROM and WHERE move to the subquery. */
static void
make_inner(Split *s)
{
	Query *inner = s->inner = makeNode(Query);
	RangeTblEntry *rte = rt_fetch(s->rti, s->outer->rtable);

	inner->commandType = CMD_SELECT;
	inner->querySource = QSRC_ORIGINAL;
	inner->canSetTag = true;
	inner->stmt_location = -1;
	inner->rtable = s->outer->rtable;
	inner->jointree = s->outer->jointree;
	inner->hasWindowFuncs = true;
	inner->hasSubLinks = s->outer->hasSubLinks;
	inner->hasRowSecurity = s->outer->hasRowSecurity;
	weir_move_permissions(s->outer, inner);

	/* in the function's place: one row without columns */
	rte->rtekind = RTE_RESULT;
	rte->functions = NIL;
	rte->lateral = false;
}

/* A column that the outer query asks for besides its own. */
static Node *
extra_column(Split *s, Node *expr, const char *name)
{
	return inner_var(s, inner_entry(s, (Expr *) expr, name));
}

/* LATERAL weir.count_windows() beside the subquery. */
static void
join_windows(Split *s)
{
	RangeTblEntry *rte = makeNode(RangeTblEntry);
	RangeTblFunction *function = makeNode(RangeTblFunction);
	FuncExpr *call;
	Node *row =
		extra_column(s, window_call(F_ROW_NUMBER, INT8OID, NIL, 1), "row");
	Node *rows =
		s->end_wanted
			? extra_column(s, window_call(F_COUNT_, INT8OID, NIL, 2), "rows")
			: (Node *) makeNullConst(INT8OID, -1, InvalidOid);
	RangeTblRef *ref = makeNode(RangeTblRef);
	TargetEntry *number;
	SortGroupClause *clause = makeNode(SortGroupClause);
	bool hashable;

	call = (FuncExpr *) weir_call(
		"count_windows", RECORDOID,
		list_make4(row, rows, copyObject(s->size), copyObject(s->slide)));
	call->funcretset = true;
	function->funcexpr = (Node *) call;
	function->funccolcount = 3;
	rte->rtekind = RTE_FUNCTION;
	rte->functions = list_make1(function);
	rte->lateral = true;
	rte->inFromCl = true;
	rte->eref = makeAlias("windows", list_make3(makeString("window_start"),
												makeString("window_end"),
												makeString("window_number")));
	s->outer->rtable = lappend(s->outer->rtable, rte);
	ref->rtindex = WINDOWS_VARNO;
	s->outer->jointree->fromlist = lappend(s->outer->jointree->fromlist, ref);

	/* each window is a group of its own */
	number = makeTargetEntry((Expr *) makeVar(WINDOWS_VARNO, WINDOW_NUMBER,
											  INT8OID, -1, InvalidOid, 0),
							 list_length(s->outer->targetList) + 1,
							 pstrdup("window_number"), true);
	get_sort_group_operators(INT8OID, true, true, false, &clause->sortop,
							 &clause->eqop, NULL, &hashable);
	clause->hashable = hashable;
	clause->tleSortGroupRef = assignSortGroupRef(number, s->outer->targetList);
	s->outer->targetList = lappend(s->outer->targetList, number);
	s->outer->groupClause = lappend(s->outer->groupClause, clause);
}

/* The outer query reads the subquery. */
static void
set_outer_from(Split *s)
{
	RangeTblEntry *rte = makeNode(RangeTblEntry);
	RangeTblRef *ref = makeNode(RangeTblRef);

	rte->rtekind = RTE_SUBQUERY;
	rte->subquery = s->inner;
	rte->inFromCl = true;
	rte->eref = makeAlias(s->name, NIL);
	s->outer->rtable = list_make1(rte);
	ref->rtindex = INNER_VARNO;
	s->outer->jointree = makeFromExpr(list_make1(ref), NULL);
}

static void
name_inner_columns(Split *s)
{
	RangeTblEntry *rte = rt_fetch(INNER_VARNO, s->outer->rtable);
	ListCell *lc;

	foreach(lc, s->inner->targetList)
		rte->eref->colnames =
			lappend(rte->eref->colnames,
					makeString(pstrdup(lfirst_node(TargetEntry, lc)->resname)));
}

/* The window function of this level, if it has one. */
static Index
find_window(Query *query, WindowFunction *function)
{
	static const char *const names[] = {NULL, "session", "count_window"};
	Index found = 0;
	ListCell *lc;

	foreach(lc, query->rtable)
	{
		RangeTblEntry *rte = lfirst_node(RangeTblEntry, lc);
		WindowFunction f = window_function_of_rte(rte);

		if (f == NO_WINDOW)
			continue;
		if (found != 0 || list_length(rte->functions) != 1 ||
			rte->funcordinality)
			refuse_combination(names[f]);
		found = foreach_current_index(lc) + 1;
		*function = f;
	}
	return found;
}

static void
split_level(QueryLevel *level)
{
	Query *query = level->query;
	Split split = {0};
	Split *s = &split;
	FuncExpr *call;
	List *partition;
	TargetEntry *order;
	int depth = -1;

	s->rti = find_window(query, &s->function);
	if (s->rti == 0)
		return;
	s->name = s->function == SESSION ? "session" : "count_window";
	s->level = level;
	s->outer = query;
	if (query->commandType != CMD_SELECT || query->groupClause == NIL)
		refuse_no_group(s);
	if (query->groupingSets != NIL)
		ereport(
			ERROR,
			(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
			 errmsg("%s() cannot be used with GROUPING SETS, ROLLUP or CUBE",
					s->name),
			 errdetail("Each grouping would have windows of its own."),
			 errhint("Write one query for each grouping, with UNION ALL.")));

	weir_flatten_group_vars(query);
	query->targetList =
		(List *) weir_flatten_join_vars(query, (Node *) query->targetList);
	query->havingQual = weir_flatten_join_vars(query, query->havingQual);

	call = (FuncExpr *) linitial_node(
			   RangeTblFunction, rt_fetch(s->rti, query->rtable)->functions)
			   ->funcexpr;
	read_arguments(s, call);
	(void) check_place(s, (Node *) query->jointree, false);
	check_references(s);

	/* what refers to the window does so by rti, which stays the same */
	make_inner(s);
	partition = split_keys(s);
	if (s->function == SESSION)
		order = inner_entry(s, (Expr *) copyObject(s->time), "time");
	else
		order = inner_entry(s, (Expr *) log_order(level, s->rti), "log_order");
	add_window_clause(s, partition, order);
	if (s->function == COUNT_WINDOW)
		add_window_clause(s, partition, NULL);

	set_outer_from(s);
	query->targetList = (List *) outer_mutator((Node *) query->targetList, s);
	query->havingQual = outer_mutator(query->havingQual, s);
	if (s->slide != NULL)
		join_windows(s);
	name_inner_columns(s);

	/* first what lies beyond this level, else it would go up twice */
	IncrementVarSublevelsUp((Node *) s->inner, 1, 1);
	(void) deepen_ctes_walker((Node *) s->inner, &depth);
}

/*
 * The levels below first; of those the CTEs, which count_window() may read
 * from anywhere below.
 */
static bool
split_walker(Node *node, QueryLevel *up)
{
	if (node == NULL)
		return false;
	if (IsA(node, Query))
	{
		Query *query = (Query *) node;
		QueryLevel level = {query, up};

		check_stack_depth();
		(void) split_walker((Node *) query->cteList, &level);
		(void) query_tree_walker(query, split_walker, (void *) &level,
								 QTW_IGNORE_CTE_SUBQUERIES);
		split_level(&level);
		return false;
	}
	return expression_tree_walker(node, split_walker, (void *) up);
}

static PlannedStmt *
window_query_planner(Query *parse, const char *query_string, int cursor_options,
					 ParamListInfo params)
{
	if (mentions_walker((Node *) parse, NULL) &&
		!weir_plan_is_input_query(parse))
		(void) split_walker((Node *) parse, NULL);
	if (prev_planner_hook)
		return prev_planner_hook(parse, query_string, cursor_options, params);
	return standard_planner(parse, query_string, cursor_options, params);
}

void
weir_window_query_init(void)
{
	prev_planner_hook = planner_hook;
	planner_hook = window_query_planner;
}
