/*-------------------------------------------------------------------------
 *
 * ddl.h
 *	  CREATE / ALTER / DROP / REFRESH / TRUNCATE of streams and continuous
 *	  views: options, refusals, dependencies, wishes.  Other people's
 *	  statements pay one comparison.
 *
 *-------------------------------------------------------------------------
 */
#ifndef WEIR_DDL_H
#define WEIR_DDL_H

#include "pg_weir.h"

/* From _PG_init: ProcessUtility_hook, object_access_hook, xact callbacks. */
extern void weir_ddl_init(void);

#endif /* WEIR_DDL_H */
