/*-------------------------------------------------------------------------
 *
 * guc.h
 *	  Settings.  One table in guc.c; doc/reference.md tells users of them.
 *
 *-------------------------------------------------------------------------
 */
#ifndef WEIR_GUC_H
#define WEIR_GUC_H

#include "pg_weir.h"

typedef enum WeirCompression
{
	WEIR_COMPRESSION_OFF,
	WEIR_COMPRESSION_LZ4
} WeirCompression;

extern PGDLLIMPORT int weir_max_workers;		 /* processes per database */
extern PGDLLIMPORT int weir_state_memory;		 /* kB, shared by all views */
extern PGDLLIMPORT int weir_checkpoint_interval; /* ms */
extern PGDLLIMPORT int weir_compression;		 /* WeirCompression */
extern PGDLLIMPORT int weir_max_held_log;		 /* MB, -1 = no limit */
/* of this session; another role's: weir_catalog_role_limit */
extern PGDLLIMPORT int weir_max_role_memory; /* kB, -1 = no limit */
extern PGDLLIMPORT int weir_max_role_views;	 /* -1 = no limit */
#ifdef WEIR_DEBUG
extern PGDLLIMPORT char *weir_debug_points; /* see debug.h */
extern PGDLLIMPORT int weir_debug_clock;	/* how far ahead it is, s */
#endif

/* Defines all settings and reserves the prefix; from _PG_init only. */
extern void weir_guc_define(void);

#endif /* WEIR_GUC_H */
