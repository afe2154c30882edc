/*-------------------------------------------------------------------------
 *
 * compat.h
 *	  Every PG_VERSION_NUM test of the tree.  A wrapper has the newest
 *	  server's name and signature, so support for an old branch falls away by
 *	  deleting its lines here.
 *
 * Supported: 15, 17, 18 (16 is expected to work, untested).
 *
 *-------------------------------------------------------------------------
 */
#ifndef WEIR_COMPAT_H
#define WEIR_COMPAT_H

#include "postgres.h"

#include "access/xact.h"
#include "miscadmin.h"
#include "storage/proc.h"
#include "utils/rel.h"

/* Recorded beside what a checkpoint saves. */
#define WEIR_SERVER_MAJOR (PG_VERSION_NUM / 10000)

/*
 * numeric_avg_serialize, numeric_serialize, numeric_poly_serialize and
 * int8_avg_serialize write the same bytes from 14 to 18.  Read them again
 * before a newer version is added.
 */
#define WEIR_STEADY_NUMERIC_STATES (PG_VERSION_NUM < 190000)

#if PG_VERSION_NUM < 150000
#error "pg_weir needs PostgreSQL 15 or later"
#endif

#if PG_VERSION_NUM < 160000
#include "storage/relfilenode.h"
typedef Oid RelFileNumber;
typedef RelFileNode RelFileLocator;
#define rd_locator				 rd_node
#define weir_rel_number(rel)	 ((rel)->rd_node.relNode)
#define weir_locator_number(loc) ((loc)->relNode)
#else
#include "storage/relfilelocator.h"
#define weir_rel_number(rel)	 ((rel)->rd_locator.relNumber)
#define weir_locator_number(loc) ((loc)->relNumber)
#endif

/* Since 16 no longer in postgres.h. */
#if PG_VERSION_NUM >= 160000
#include "varatt.h"
#endif

/* Functions of later servers: no function has this OID. */
#include "utils/fmgroids.h"
#if PG_VERSION_NUM < 160000
#define F_ANY_VALUE_TRANSFN InvalidOid
#endif

/* Stands before the declaration. */
#if PG_VERSION_NUM < 180000
#define pg_noreturn pg_attribute_noreturn()
#endif

/* Index of this backend in an array of MaxBackends elements. */
#if PG_VERSION_NUM < 170000
#define weir_my_proc_number() (MyProc->pgprocno)
#else
#define weir_my_proc_number() (MyProcNumber)
#endif

/* SELECT rights of a query's relations, as their checkAsUser; raises. */
#if PG_VERSION_NUM < 160000
#define weir_check_permissions(query)		 ExecCheckRTPerms((query)->rtable, true)
#define weir_rte_user(query, rte)			 ((void) (query), (rte)->checkAsUser)
#define weir_proc_aclcheck(func, role, mode) pg_proc_aclcheck(func, role, mode)
#define weir_flatten_join_vars(query, node)	 flatten_join_alias_vars(query, node)
#else
#define weir_check_permissions(query) \
	ExecCheckPermissions((query)->rtable, (query)->rteperminfos, true)
#define weir_rte_user(query, rte) \
	(getRTEPermissionInfo((query)->rteperminfos, rte)->checkAsUser)
#define weir_proc_aclcheck(func, role, mode) \
	object_aclcheck(ProcedureRelationId, func, role, mode)
#define weir_flatten_join_vars(query, node) \
	flatten_join_alias_vars(NULL, query, node)
#endif

/* GROUP BY expressions instead of references to the RTE that holds them. */
#if PG_VERSION_NUM < 180000
#define weir_flatten_group_vars(query) ((void) 0)
#else
#define weir_flatten_group_vars(query)                                         \
	do                                                                         \
	{                                                                          \
		if ((query)->hasGroupRTE)                                              \
		{                                                                      \
			(query)->targetList = (List *) flatten_group_exprs(                \
				NULL, query, (Node *) (query)->targetList);                    \
			(query)->havingQual =                                              \
				flatten_group_exprs(NULL, query, (query)->havingQual);         \
			(query)->rtable = list_truncate((query)->rtable,                   \
											list_length((query)->rtable) - 1); \
			(query)->hasGroupRTE = false;                                      \
		}                                                                      \
	} while (0)
#endif

/* Run a query to its end. */
#if PG_VERSION_NUM < 180000
#define weir_executor_run(query) \
	ExecutorRun(query, ForwardScanDirection, 0, true)
#else
#define weir_executor_run(query) ExecutorRun(query, ForwardScanDirection, 0)
#endif

/* Index entries of a row that has just been inserted. */
#if PG_VERSION_NUM < 160000
#define weir_insert_index_tuples(rel, slot, estate) \
	list_free(ExecInsertIndexTuples(rel, slot, estate, false, false, NULL, NIL))
#else
#define weir_insert_index_tuples(rel, slot, estate)                        \
	list_free(ExecInsertIndexTuples(rel, slot, estate, false, false, NULL, \
									NIL, false))
#endif

#if PG_VERSION_NUM < 180000
#define weir_form_minimal_tuple(desc, values, nulls) \
	heap_form_minimal_tuple(desc, values, nulls)
#else
#define weir_form_minimal_tuple(desc, values, nulls) \
	heap_form_minimal_tuple(desc, values, nulls, 0)
#endif

/* The last result of get_ordering_op_properties(). */
#if PG_VERSION_NUM < 180000
typedef int16 WeirOrdering;
#else
#include "access/cmptype.h"
typedef CompareType WeirOrdering;
#endif

/* A time zone, abbreviation or offset, as date_trunc() takes it; raises. */
#if PG_VERSION_NUM < 160000
#include "parser/scansup.h"
#include "utils/datetime.h"

static inline pg_tz *
DecodeTimezoneNameToTz(const char *name)
{
	char *low = downcase_truncate_identifier(name, strlen(name), false);
	int offset;
	pg_tz *tz;
	int type = DecodeTimezoneAbbrev(0, low, &offset, &tz);

	if (type == TZ || type == DTZ)
		tz = pg_tzset_offset(-offset);
	else if (type != DYNTZ)
		tz = pg_tzset(name);
	if (tz == NULL)
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("time zone \"%s\" not recognized", name)));
	return tz;
}
#endif

/* Since 18 the parts of EXPLAIN have headers of their own. */
#include "commands/explain.h"
#if PG_VERSION_NUM >= 180000
#include "commands/explain_format.h"
#include "commands/explain_state.h"
#endif

#if PG_VERSION_NUM < 160000
#define object_ownercheck(classid, objectid, roleid) \
	((void) (classid), pg_class_ownercheck(objectid, roleid))
#endif

/*
 * Hand what core checks for a range table entry down to the copy of it that
 * stands in a subquery in its place.
 */
#include "nodes/parsenodes.h"
#if PG_VERSION_NUM < 160000
#define weir_move_rte_permissions(query, rte, sub, inner)                    \
	((void) (query), (void) (sub), (void) (inner), (rte)->requiredPerms = 0, \
	 (rte)->checkAsUser = InvalidOid, (rte)->selectedCols = NULL)
#else
#include "parser/parse_relation.h"
#define weir_move_rte_permissions(query, rte, sub, inner)                      \
	do                                                                         \
	{                                                                          \
		if ((rte)->perminfoindex != 0)                                         \
		{                                                                      \
			(sub)->rteperminfos = list_make1(                                  \
				copyObject(getRTEPermissionInfo((query)->rteperminfos, rte))); \
			(inner)->perminfoindex = 1;                                        \
			(rte)->perminfoindex = 0;                                          \
		}                                                                      \
	} while (0)
#endif

/* ... of all entries, when they move to a subquery together. */
#if PG_VERSION_NUM < 160000
#define weir_move_permissions(query, sub) ((void) (query), (void) (sub))
#else
#define weir_move_permissions(query, sub) \
	((sub)->rteperminfos = (query)->rteperminfos, (query)->rteperminfos = NIL)
#endif

/* The text of a qualified name as its parts. */
#if PG_VERSION_NUM < 160000
#define weir_parse_name(text) stringToQualifiedNameList(text)
#else
#define weir_parse_name(text) stringToQualifiedNameList(text, NULL)
#endif

/* Right to REFRESH and the like. */
#if PG_VERSION_NUM < 170000
#define RangeVarCallbackMaintainsTable RangeVarCallbackOwnsTable
#endif

#if PG_VERSION_NUM < 160000
#define weir_owns_database(db, role) pg_database_ownercheck(db, role)
#else
#define weir_owns_database(db, role) \
	object_ownercheck(DatabaseRelationId, db, role)
#endif

/* Status of backend i of the caller's copy, counted from 1. */
#include "utils/backend_status.h"
#if PG_VERSION_NUM < 160000
#define weir_local_backend(i) pgstat_fetch_stat_local_beentry(i)
#else
#define weir_local_backend(i) pgstat_get_local_beentry_by_index(i)
#endif
#define weir_backend_status(i) (&weir_local_backend(i)->backendStatus)

/* Since 18 a descriptor holds a second, compact form of its columns. */
#if PG_VERSION_NUM < 180000
#define weir_populate_compact_attribute(desc, i) ((void) (desc))
#else
#define weir_populate_compact_attribute(desc, i) \
	populate_compact_attribute(desc, i)
#endif

/* Rows returned by a scan, beyond what heap's own scan has counted. */
#include "pgstat.h"
#if PG_VERSION_NUM < 160000
#define weir_pgstat_returned(rel) \
	((rel)->pgstat_info->t_counts.t_tuples_returned)
#else
#define weir_pgstat_returned(rel) ((rel)->pgstat_info->counts.tuples_returned)
#endif

/* Are there incremental backups? */
#if PG_VERSION_NUM < 170000
#define weir_wal_is_summarized() false
#else
#include "postmaster/walsummarizer.h"
#define weir_wal_is_summarized() summarize_wal
#endif

/* What is older the commit log does not know; guard: XactTruncationLock. */
#include "access/transam.h"
#if PG_VERSION_NUM < 170000
#define WEIR_OLDEST_CLOG_XID (ShmemVariableCache->oldestClogXid)
#else
#define WEIR_OLDEST_CLOG_XID (TransamVariables->oldestClogXid)
#endif

/* "snapshot too old" */
#if PG_VERSION_NUM < 170000
#include "utils/snapmgr.h"
#define weir_snapshots_expire() OldSnapshotThresholdActive()
#else
#define weir_snapshots_expire() false
#endif

/* Table access method callbacks whose signatures have changed. */
#if PG_VERSION_NUM < 160000
typedef bool WeirUpdateIndexes;
#define relation_set_new_filelocator relation_set_new_filenode
#else
#include "access/tableam.h"
typedef TU_UpdateIndexes WeirUpdateIndexes;
#endif
#if PG_VERSION_NUM < 170000
#define WEIR_ANALYZE_BLOCK_ARGS BlockNumber block, BufferAccessStrategy strategy
#define weir_analyze_read_block(rel) \
	ReadBufferExtended(rel, MAIN_FORKNUM, block, RBM_NORMAL, strategy)
#else
#include "storage/read_stream.h"
#define WEIR_ANALYZE_BLOCK_ARGS		 ReadStream *stream
#define weir_analyze_read_block(rel) read_stream_next_buffer(stream, NULL)
#endif
#if PG_VERSION_NUM < 180000
#define weir_update_relstats(rel, pages, rows, all_visible, all_frozen)       \
	vac_update_relstats(rel, pages, rows, all_visible, false,                 \
						InvalidTransactionId, InvalidMultiXactId, NULL, NULL, \
						false)
#else
#define weir_update_relstats(rel, pages, rows, all_visible, all_frozen)       \
	vac_update_relstats(rel, pages, rows, all_visible, all_frozen, false,     \
						InvalidTransactionId, InvalidMultiXactId, NULL, NULL, \
						false)
#endif

#endif /* WEIR_COMPAT_H */
