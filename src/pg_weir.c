/*-------------------------------------------------------------------------
 *
 * pg_weir.c
 *	  _PG_init: registers everything else; included by nobody.
 *
 * Loaded late (not by shared_preload_libraries) the library has no shared
 * memory and of the hooks only those of DDL, which keep options of streams and
 * views from core, and of reading, so that a view never shows its heap alone and
 * session() is understood: whatever needs more calls weir_shmem_require, which says what to do.
 * pg_upgrade loads it that way and must succeed.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "fmgr.h"
#include "miscadmin.h"

#include "catalog.h"
#include "ddl.h"
#include "guc.h"
#include "launcher.h"
#include "shmem.h"
#include "stream.h"
#include "view.h"
#include "window_query.h"


PG_MODULE_MAGIC;

extern PGDLLEXPORT void _PG_init(void);

void
_PG_init(void)
{
	weir_catalog_init();
	weir_ddl_init();
	weir_view_init();
	weir_window_query_init();
	if (!process_shared_preload_libraries_in_progress)
		return;

	weir_guc_define();
	weir_shmem_init();
	weir_stream_init();
	weir_launcher_init();
}
