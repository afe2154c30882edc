/*-------------------------------------------------------------------------
 *
 * guc.c
 *	  Settings: one table, defined once while the library is preloaded.
 *
 * Nothing here checks one setting against another, and no setting changes what
 * a view computes: only how fast, how small, how often.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <limits.h>

#include "utils/guc.h"

#include "guc.h"

int weir_max_workers = 2;
int weir_state_memory = 256 * 1024;
int weir_checkpoint_interval = 60 * 1000;
int weir_compression = WEIR_COMPRESSION_OFF;
int weir_max_held_log = -1;
int weir_max_role_memory = -1;
int weir_max_role_views = -1;
#ifdef WEIR_DEBUG
char *weir_debug_points = NULL;
int weir_debug_clock = 0;
#endif

static const struct config_enum_entry compression_options[] = {
	{"off", WEIR_COMPRESSION_OFF, false},
	{"lz4", WEIR_COMPRESSION_LZ4, false},
	{NULL, 0, false}};

void
weir_guc_define(void)
{
	DefineCustomIntVariable("weir.max_workers",
							"Worker processes per database that maintain "
							"continuous views.",
							NULL, &weir_max_workers, 2, 1, 64, PGC_SIGHUP, 0,
							NULL, NULL, NULL);

	DefineCustomIntVariable("weir.state_memory",
							"Memory for the state of all continuous views of "
							"the server.",
							NULL, &weir_state_memory, 256 * 1024, 1024,
							MAX_KILOBYTES, PGC_POSTMASTER, GUC_UNIT_KB, NULL,
							NULL, NULL);

	DefineCustomIntVariable("weir.checkpoint_interval",
							"Longest time between two checkpoints of a "
							"continuous view that changes.",
							NULL, &weir_checkpoint_interval, 60 * 1000, 10,
							24 * 60 * 60 * 1000, PGC_SIGHUP, GUC_UNIT_MS, NULL,
							NULL, NULL);

	DefineCustomEnumVariable("weir.compression",
							 "Compression of the events this session writes "
							 "into streams.",
							 NULL, &weir_compression, WEIR_COMPRESSION_OFF,
							 compression_options, PGC_USERSET, 0, NULL, NULL,
							 NULL);

	DefineCustomIntVariable("weir.max_held_log",
							"Log that a paused or failed view may keep from "
							"retention before it is given up as lost.",
							"-1 means no limit.", &weir_max_held_log, -1, -1,
							MAX_KILOBYTES, PGC_SIGHUP, GUC_UNIT_MB, NULL, NULL,
							NULL);

	DefineCustomIntVariable("weir.max_role_memory",
							"State memory that the continuous views of one "
							"role may take.",
							"-1 means no limit. Superusers have none.",
							&weir_max_role_memory, -1, -1, MAX_KILOBYTES,
							PGC_SUSET, GUC_UNIT_KB, NULL, NULL, NULL);

	DefineCustomIntVariable("weir.max_role_views",
							"Continuous views that one role may own in a "
							"database.",
							"-1 means no limit. Superusers have none.",
							&weir_max_role_views, -1, -1, INT_MAX, PGC_SUSET, 0,
							NULL, NULL, NULL);

#ifdef WEIR_DEBUG
	DefineCustomStringVariable("weir.debug_points",
							   "Points of the code that fail, die or wait, "
							   "for tests.",
							   "A list of name=error|fatal|kill|wait[@N].",
							   &weir_debug_points, "", PGC_SUSET,
							   GUC_NOT_IN_SAMPLE, NULL, NULL, NULL);
	DefineCustomIntVariable("weir.debug_clock",
							"How far ahead the clock is, for tests.", NULL,
							&weir_debug_clock, 0, INT_MIN, INT_MAX, PGC_SIGHUP,
							GUC_UNIT_S | GUC_NOT_IN_SAMPLE, NULL, NULL, NULL);
#endif

	MarkGUCPrefixReserved("weir");
}
