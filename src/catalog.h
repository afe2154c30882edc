/*-------------------------------------------------------------------------
 *
 * catalog.h
 *	  Rows of the extension's tables, options of streams and views, <-> C
 *	  structs.
 *
 * Tables (schema weir, no rights for PUBLIC; see the install script):
 *
 *	weir.view_wish		one row a view: what users' statements want.  Written
 *						by statements, read by workers.
 *	weir.view_position	one row a (view, generation): how far it is.  Written
 *						by workers only, in the checkpoint transaction.
 *	weir.view_state		blobs of groups (checkpoint.c).  Workers only.
 *	weir.view_pending	final rows of a rebuild before its swap. Workers only.
 *	weir.late_pending	late events of a rebuild before its swap (late.c).
 *						Workers only.
 *	weir.stream_trim	one row a stream that has lost events to retention or
 *						TRUNCATE: up to which number, and event time.
 *	weir.stream_end		one row a stream that has ended: since when.
 *	weir.log_run		what is in the log of a stream, 8 MB a row (runs.c).
 *	weir.error_log		events skipped by on_error = skip, and the error that
 *						stopped a view.  Workers only.
 *
 * All functions need a transaction; readers of another session's rows see what
 * the given (or a fresh catalog) snapshot sees.
 *
 *-------------------------------------------------------------------------
 */
#ifndef WEIR_CATALOG_H
#define WEIR_CATALOG_H

#include "pg_weir.h"

#include "nodes/pg_list.h"
#include "storage/lockdefs.h"
#include "utils/rel.h"
#include "utils/snapshot.h"

/* ---- streams ---- */

typedef struct WeirStreamOptions
{
	AttrNumber event_attno; /* 0: no event time */
	bool event_is_timestamptz;
	int64 watermark_delay; /* us >= 0 */
	int64 idle_timeout;	   /* us; 0 = off */
	int64 max_future;	   /* us; PG_INT64_MAX = infinity */
	int64 retention;	   /* us; PG_INT64_MAX = keep all */
	int64 retention_size;  /* bytes; PG_INT64_MAX = keep all */
} WeirStreamOptions;

/*
 * Options of a stream, from pg_class.reloptions; cached per relation and
 * backend, invalidated by relcache.  The pointer is good until the next call
 * or invalidation: copy what you keep.
 */
extern const WeirStreamOptions *weir_catalog_stream_options(Relation rel);

/* ---- views ---- */

typedef enum WeirEmit
{
	WEIR_EMIT_LIVE,
	WEIR_EMIT_FINAL
} WeirEmit;

typedef enum WeirOnError
{
	WEIR_ON_ERROR_STOP,
	WEIR_ON_ERROR_SKIP
} WeirOnError;

typedef struct WeirViewOptions
{
	int64 allowed_lateness; /* us; PG_INT64_MAX = infinity */
	WeirEmit emit;
	WeirOnError on_error;
	int64 retention;  /* us; PG_INT64_MAX = keep all */
	char *late_table; /* name, or NULL: none; late.c knows which it is */
	char *settings;	  /* frozen settings, secure.h */
} WeirViewOptions;

/* Palloc'd in the current context. */
extern WeirViewOptions *weir_catalog_view_options(Oid view);

/*
 * Parsers shared with ddl.c: text of an option to microseconds; what names the
 * option in messages.  A number without a unit is refused (22023).  allow_off,
 * allow_infinity: these words give off_value / PG_INT64_MAX.
 */
extern int64 weir_catalog_parse_duration(const char *what, const char *text,
										 bool allow_off, int64 off_value,
										 bool allow_infinity);

/* Is this an option of ours, to be kept away from core's option parser? */
extern bool weir_catalog_is_stream_option(const char *name);
extern bool weir_catalog_is_view_option(const char *name);

/*
 * What a setting is for a role, as if it had a session in this database: by ALTER
 * ROLE and ALTER DATABASE, else the value given.  -1 for superusers.  name: with
 * "weir."; unit: as in guc.c.
 */
extern int weir_catalog_role_limit(const char *name, int flags, int otherwise,
								   Oid role);

/* ---- our relations ---- */

extern Oid weir_catalog_schema(void); /* InvalidOid: extension is not here */
/* The same without caches, which see a DROP and CREATE in pieces. */
extern bool weir_catalog_has_extension(void);
extern Oid weir_catalog_table(const char *name); /* in schema weir; raises */
/* One with the columns that its caller knows: an update of the extension adds
 * some, always behind the others, and the library may be older or newer. */
extern Relation weir_catalog_open(const char *name, int natts,
								  LOCKMODE lockmode);
extern Oid weir_catalog_stream_am(void); /* pg_am OIDs; InvalidOid if none */
extern Oid weir_catalog_continuous_am(void);
extern bool weir_catalog_is_stream(Relation rel); /* by rd_amhandler */
extern bool weir_catalog_is_continuous(Relation rel);
extern bool weir_catalog_is_stream_oid(Oid relid); /* syscache; false if gone */
extern bool weir_catalog_is_continuous_oid(Oid relid);

/* Views (OIDs) whose wish names this stream. */
extern List *weir_catalog_views_of_stream(Oid stream);

/* ---- wishes ---- */

#define WEIR_WANT_RUN	'r'
#define WEIR_WANT_PAUSE 'p'
#define WEIR_WANT_STOP	's' /* WITH NO DATA, never started */

typedef struct WeirWish
{
	Oid view;
	Oid stream;
	char wanted;		/* WEIR_WANT_* */
	int64 generation;	/* REFRESH increments; starts at 1 */
	int64 resumes;		/* weir.resume increments: clears a failure */
	WeirNumber since;	/* weir_catalog_trimmed() when the view began to count;
						 * or WEIR_SINCE_LOST: it has counted events that this
						 * server never had */
	int64 kept_through; /* the generation does not build windows with end <=
						 * this: the rows of the one before stay;
						 * PG_INT64_MIN: all are built */
} WeirWish;

#define WEIR_SINCE_LOST ((WeirNumber) PG_INT64_MAX)

extern bool weir_catalog_wish_get(Oid view, WeirWish *wish);
extern List *weir_catalog_wish_all(void); /* of palloc'd WeirWish */
extern List *weir_catalog_wish_all_at(Snapshot snapshot);
extern void weir_catalog_wish_put(const WeirWish *wish); /* insert or update */
extern void weir_catalog_wish_delete(Oid view);

/* ---- what streams have lost ---- */

/*
 * Events up to this number are gone; WEIR_NO_NUMBER: none.  It is a mark: views
 * remember what it was when they began, and it grows with each loss.  Some with
 * a lower number may still be there, or come yet (log_trim.c), and it grows when
 * these go, too, by one if need be; numbers of later events are far above, as
 * each is a place in WAL.  *max_time, unless
 * NULL: the largest event time among them; WEIR_NO_TIME: they had none,
 * PG_INT64_MAX: it is not known.  WEIR_SINCE_LOST, with a warning: the row is
 * damaged; whatever a view has counted may be gone.
 */
extern WeirNumber weir_catalog_trimmed(Oid stream, int64 *max_time);
/* Never lowers either; any: events have gone, those of up_to the last. */
extern void weir_catalog_set_trimmed(Oid stream, WeirNumber up_to,
									 int64 max_time, bool any);
/* The event time is another column from now on, and no window is over it yet. */
extern void weir_catalog_forget_trimmed_time(Oid stream);
extern void weir_catalog_forget_stream(Oid stream);

/* ---- streams that have ended ---- */

/* Has it, as the latest snapshot or this transaction sees it, and when? */
extern bool weir_catalog_stream_end(Oid stream, TimestampTz *at);
extern void weir_catalog_set_stream_end(Oid stream, TimestampTz at);
/* It begins anew; false: it had not ended. */
extern bool weir_catalog_unset_stream_end(Oid stream);

/* ---- positions ---- */

/* failed_resumes: no resume continues it, see retention.c */
#define WEIR_LOST PG_INT64_MAX

typedef struct WeirPositionRow
{
	Oid view;
	int64 generation;
	bool answering; /* exactly one generation of a view has it */
	WeirPosition position;
	TimestampTz watermark;	/* W at position */
	int64 closed_before;	/* panes with end <= this are in the heap;
								 * PG_INT64_MIN none */
	int64 allowed_lateness; /* us; in force from this position on */
	int64 checkpoint_seq;	/* of the last checkpoint */
	int64 events_in;
	int64 late;
	int64 late_partial;
	int64 final_rows;
	bool built;			  /* has once reached the end of its history */
	int64 failed_resumes; /* -1, or: failed, until wish.resumes exceeds; or
						   * WEIR_LOST */
	char *sqlstate;		  /* of the failure, or NULL */
	char *error;
	int32 format;		/* of the blobs */
	int32 server_major; /* that wrote them */
	char *layout;		/* aggregate representations in the blobs */
	TimestampTz checkpoint_at;
	int64 checkpoint_us;
	int64 checkpoint_bytes;
} WeirPositionRow;

/* format of a row with a wrong checksum; all else in it says that nothing is
 * consumed, so that the log is kept for the REFRESH that repairs the view */
#define WEIR_FORMAT_DAMAGED (-1)

/*
 * Snapshot NULL: latest committed.  generation -1: the answering one.  The
 * TID of the version read is kept by the caller for the write-back check.
 */
extern bool weir_catalog_position_get(Oid view, int64 generation, Snapshot snap,
									  WeirPositionRow *row, ItemPointer tid);
/* Who goes by what is in the row calls this: it raises if the row is damaged. */
extern void weir_catalog_position_check(const WeirPositionRow *row);
/*
 * Insert (tid invalid) or update exactly the version at *tid; false if that
 * version is no longer the newest (another owner wrote: give up).  Sets *tid.
 */
extern bool weir_catalog_position_put(const WeirPositionRow *row,
									  ItemPointer tid);
/* Until the end of the transaction nobody else puts it, or holds it; false: as
 * above. */
extern bool weir_catalog_position_hold(const WeirPositionRow *row,
									   ItemPointer tid);

/*
 * What the view's generations, but for lost ones, have consumed durably.  False:
 * it needs nothing of its stream's log: it is stopped, or lost.
 */
extern bool weir_catalog_needs_log(Oid view, WeirPosition *position);

/* Everything about a view (all tables); generation -1: of all generations. */
extern void weir_catalog_forget_view(Oid view, int64 generation);
/* What a restore has brought for it and a REFRESH has not yet taken. */
extern void weir_catalog_forget_import(Oid view);
/* Rows of a rebuild that have been swapped in. */
extern void weir_catalog_forget_pending(Oid view, int64 generation);

/* ---- errors ---- */
extern void weir_catalog_error_add(Oid view, int64 generation, Oid stream,
								   const char *event_json, const char *sqlstate,
								   const char *message);

/* CacheRegisterRelcacheCallback etc.; from _PG_init. */
extern void weir_catalog_init(void);

#endif /* WEIR_CATALOG_H */
