/*-------------------------------------------------------------------------
 *
 * plan.h
 *	  View query -> flow plan, or a refusal with errcode and hint.
 *
 * The view's SELECT is split in two: the *input query* (group keys, aggregate
 * arguments, filters over FROM and WHERE; no aggregate), run per batch by the
 * server's executor, and the *final part* (target list and HAVING over a row
 * of keys and finalised aggregates), run when a group is read or closed.
 *
 * Refusals are made on the analysed query (recursively: subqueries, CTEs and
 * plain views that pull up are accepted) and on the planned input query, which
 * may hold nothing but the scan of the one stream and projections over it.
 *
 *-------------------------------------------------------------------------
 */
#ifndef WEIR_PLAN_H
#define WEIR_PLAN_H

#include "pg_weir.h"

#include "aggregate.h"
#include "fmgr.h"
#include "nodes/parsenodes.h"
#include "nodes/pathnodes.h"
#include "nodes/plannodes.h"
#include "window.h"

typedef struct WeirKey
{
	Oid type;
	int32 typmod;
	Oid collation;
	int16 typlen;
	bool typbyval;
	char typalign;
	bool by_image;		/* equality is byte equality (btree support
								 * function 4 says so; never for bpchar) */
	bool is_window;		/* the window's key (or its other bound): fixed
								 * by the window, not hashed */
	bool is_window_end; /* which of the two */
	Oid eq_op;			/* of the GROUP BY clause */
	Oid eq_proc;
	Oid hash_proc; /* InvalidOid: not hashable, hashes to 0 */
} WeirKey;

typedef struct WeirViewPlan
{
	Oid view; /* InvalidOid while it is being created */
	Oid owner;
	Oid stream;
	char *settings; /* frozen settings; NULL while being created */

	/* input: columns 1..nkeys are the keys, the others arguments, filters */
	Query *input; /* analysed, not rewritten: copy before use */
	int nkeys;
	WeirKey *keys;
	int ninputs;	   /* columns of the input query */
	WeirWindow window; /* kind NONE: unwindowed */
	int window_key;	   /* 0-based key the pane is computed from */
	bool merged;	   /* groups are merged before they are shown: see
								 * weir_aggs_create */
	bool grouped;	   /* false: no GROUP BY, exactly one row */

	/*
	 * GROUPING SETS: each row is in one group of each set, with nulls for the
	 * keys that are not in it.  The last key is the set's number, which no
	 * column shows; the input query has 0 there.
	 */
	int nsets;				   /* 0: none */
	Bitmapset **set_keys;	   /* 0-based keys, the last one left out */
	Bitmapset *stream_columns; /* attnos of the stream the input needs */

	/* final part: Vars have varno 1; attno 1..nkeys keys, then aggregates */
	List *aggs;				 /* of WeirAggSpec */
	List *targetlist;		 /* one TargetEntry per view column, no resjunk */
	Node *having;			 /* or NULL */
	Node *window_quals;		 /* NULL, or of hop and cumulate: what WHERE says
								 * of windows, of which having has it too */
	TupleDesc final_desc;	 /* descriptor of that row of keys and aggs */
	int *column_key;		 /* per view column (0-based): the 0-based key
								 * it shows bare, or -1 */
	int window_start_column; /* 1-based view column, 0: not shown */
	int window_end_column;
} WeirViewPlan;

/*
 * Analyse a view's query.  Everything is allocated in the current context.
 * Call inside weir_secure_enter(owner).  notice: CREATE tells by NOTICE when
 * date_trunc or date_bin was recognised as a window.  Refusals: 0A000 with
 * hint; wrong window arguments 22023; RLS on the stream for this owner: 0A000.
 */
extern WeirViewPlan *weir_plan_query(Query *query, Oid view, Oid owner,
									 bool notice);

/*
 * The stream that the query reads, without planning anything: no function is
 * called.  Refuses what can be refused so far, and lack of rights.  Call inside
 * weir_secure_enter(owner).
 */
extern Oid weir_plan_find_stream(Query *query, Oid view, Oid owner);

/* The plan of an existing view from its rule, inside weir_secure_enter; and
 * the view's own query (analysed, palloc'd copy). */
extern Query *weir_plan_view_query(Oid view);

/* SELECT and TRIGGER on the stream and USAGE/EXECUTE as the owner; raises
 * 42501.  Checked at create, start, OWNER TO. */
extern void weir_plan_check_rights(const WeirViewPlan *plan);

/* Rewrite and plan the input query (worker: with weir_stream_in_worker set). */
extern PlannedStmt *weir_plan_input(const WeirViewPlan *plan);

/* Is an input query being planned here, or a part of it?  And is this it? */
extern bool weir_plan_is_input(const PlannerInfo *root);
extern bool weir_plan_is_input_query(const Query *query);

#endif /* WEIR_PLAN_H */
