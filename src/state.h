/*-------------------------------------------------------------------------
 *
 * state.h
 *	  Keyed state of a view in shared memory: panes of groups; find, publish,
 *	  cut, scan, drop.  Knows nothing of types: keys and states are bytes, a
 *	  group is found by hash, and whoever looks compares the candidates' keys
 *	  itself.
 *
 * view -> pane (int64 window end) -> WEIR_PARTITIONS hash tables -> groups.
 * One writer: the worker that owns the view.  It reads without locks.
 *
 * Consistent cuts: every group carries the version (number of the publish)
 * that wrote it.  A reader opens a cut at the last complete publish; while
 * cuts are open the writer keeps the bytes it overwrites (chained, newest
 * first, freed when no open cut can need them), and a reader at cut c uses the
 * newest bytes with version <= c.  Opening a cut waits for a publish under
 * way; copying waits only for one partition.
 *
 *-------------------------------------------------------------------------
 */
#ifndef WEIR_STATE_H
#define WEIR_STATE_H

#include "pg_weir.h"

#include "compat.h"
#include "shmem.h"
#include "utils/dsa.h"
#include "utils/snapshot.h"

/* A group as the writer or a reader sees it. */
typedef struct WeirGroup
{
	int64 pane;
	uint32 hash; /* of the key; not stored in checkpoints */
	Size keylen;
	Size statelen;
	const char *key;   /* MAXALIGNed */
	const char *state; /* MAXALIGNed */
} WeirGroup;

/* ---- writer ---- */

typedef struct WeirState WeirState; /* process-local handle */

/* Attach as the writer.  If the entry has no valid state (new, or a
 * predecessor died inside a publish: found by "publishing"), an empty state is
 * made and *fresh is set: the caller loads the checkpoint into it.  layout:
 * what the states are (weir_groups_layout); raises if those that are there are
 * of another one. */
extern WeirState *weir_state_attach(WeirViewShared *v, const char *layout,
									bool *fresh);
/* The checkpoint is loaded into a fresh state (or there was none to load):
 * from now on readers use the memory.  Until this call state_valid is false
 * and they read the blobs.  No-op if the state was not fresh. */
extern void weir_state_loaded(WeirState *s);
/* Until then: the next pane will (perhaps) have so many groups; 0: unknown. */
extern void weir_state_expect(WeirState *s, uint64 ngroups);
extern void weir_state_detach(WeirState *s);
/* Free all memory of an entry; state_valid becomes false. Waits for readers'
 * cuts by marking the version dead, never for long. */
extern void weir_state_discard(WeirViewShared *v);
/* The same for good: no state of this entry will follow. */
extern void weir_state_forget(WeirViewShared *v);

/*
 * The next candidate with this hash in this pane; start with *iter = 0.
 * False: no more.  *ref names the group in WeirPut; pointers in *g are good
 * until the writer's next publish.
 */
extern bool weir_state_find(WeirState *s, int64 pane, uint32 hash,
							dsa_pointer *iter, dsa_pointer *ref, WeirGroup *g);
/* Prefetch for coming finds, in two steps so that nothing waits for memory: the
 * bucket for each of some 16 to 64 rows, then the entries of all of them. */
extern void weir_state_prefetch(WeirState *s, int64 pane, uint32 hash);
extern void weir_state_prefetch_entries(WeirState *s);

typedef struct WeirPut
{
	WeirGroup group;
	dsa_pointer ref;	  /* group to overwrite, or InvalidDsaPointer: new */
	dsa_pointer reserved; /* state.c's: memory got by reserve */
	bool remove;		  /* forget the group of ref instead: no reader needs
						   * it any more */
} WeirPut;

/*
 * Allocate all memory a publish of these puts needs, growing tables before.
 * ereports 53200 with a hint naming weir.state_memory when the area is full,
 * having given back what it took.
 */
extern void weir_state_reserve(WeirState *s, WeirPut *puts, int n);

/* Raise the 53200 of a full area: the view needs more than there is. */
pg_noreturn extern void weir_state_out_of_memory(WeirState *s);
/* Is it that, not want of memory of this process or of locks? */
extern bool weir_state_is_exhausted(const ErrorData *e);

/*
 * Make the puts visible at once together with the position and the watermark,
 * and wake those who wait on progress_cv.  Allocates and raises nothing.  The
 * same puts in the same order as reserved; n may be 0 (no reserve needed).  A
 * reservation that was never published is given back by the next reserve.
 */
extern void weir_state_publish(WeirState *s, WeirPut *puts, int n,
							   WeirPosition position, TimestampTz watermark);

/* ---- panes, for closing ---- */

/* Panes with groups and end <= final_before that are not closed, oldest first;
 * palloc'd array of ends. */
extern int weir_state_panes(WeirState *s, int64 final_before, int64 **ends);
/* Smallest end of those (to know cheaply that nothing closes); PG_INT64_MAX. */
extern int64 weir_state_min_pane(WeirState *s);
/* Smallest end of one after this. */
extern int64 weir_state_next_pane(WeirState *s, int64 after);
/*
 * Mark panes with end <= through as being moved to the heap by xid.  Under
 * publish_lock.  Replaces the stamp of an aborted attempt.  overlap: windows up
 * to "through" go although panes that count in them stay; then there is a pane
 * of that end afterwards, if only to bear the stamp (may raise 53200).
 */
extern void weir_state_stamp(WeirState *s, int64 through, TransactionId xid,
							 bool overlap);
/* Memory is not needed for windows up to this end any more. */
extern int64 weir_state_swept(WeirState *s);
/* Say so of a checkpoint just loaded. */
extern void weir_state_set_swept(WeirState *s, int64 through);
/* Free stamped panes whose xid committed and is older than every snapshot
 * (oldest: GetOldestNonRemovableTransactionId); take off the stamps of aborted
 * attempts.  To be called again while there are stamps: xids are reused. */
extern void weir_state_sweep(WeirState *s, TransactionId oldest);
/* Is there something for sweep to look at? */
extern bool weir_state_has_stamps(WeirState *s);
/*
 * Memory is short: drop what sweep would, but for snapshots that still need it.
 * Those will find the rows in the heap by their xid.  False: there is nothing.
 */
extern bool weir_state_drop_closed(WeirState *s);

/* ---- a transaction in parts ---- */

/*
 * From here until weir_state_show readers stay at the last publish, whatever is
 * published: a part of a transaction is never seen.  In between, stamps are of
 * one transaction only, and what fails is mended by nothing but discard.
 */
extern void weir_state_hide(WeirState *s);
/* Are readers kept at a version of this group?  Then it cannot be removed. */
extern bool weir_state_is_held(WeirState *s, dsa_pointer ref);
/* Free stamped panes of which readers have never seen anything. */
extern void weir_state_drop_hidden(WeirState *s);
/*
 * Make all of it visible at once, with the position and the watermark.  All
 * windows stamped since hide, and up to this end, are read from the heap now, by
 * the stamp's transaction, which is still open; the caller commits it and says
 * weir_state_shown, or weir_state_doubt before it is aborted (at the exit of the
 * process that is done): then the state is good for nothing.
 */
extern void weir_state_show(WeirState *s, int64 through, WeirPosition position,
							TimestampTz watermark);
extern void weir_state_shown(void);
extern void weir_state_doubt(void);

/*
 * Walk groups: of one pane, or (pane = PG_INT64_MAX) of all unstamped panes;
 * written by a publish after that version (0: all).  Writer only, no lock; the
 * callback may raise.  Returns how many it has passed over, as older.  What is
 * written after weir_state_mark_clean is known and found at once if it is little.
 */
typedef void (*WeirGroupCallback)(const WeirGroup *g, void *arg);
extern uint64 weir_state_walk(WeirState *s, int64 pane, uint64 after,
							  WeirGroupCallback callback, void *arg);
/*
 * The same of all unstamped panes in steps, between which there may be publishes,
 * but none of those panes may go: a group that no publish has written since the
 * walk began is called back with once, others not at all.  It begins with {0} but
 * for "through".  A step goes on until that time, at least for a
 * block of groups or WALK_BYTES; false: it is through.
 */
typedef struct WeirWalk
{
	uint64 through; /* weir_state_version when it began */
	bool begun;
	int64 pane;	   /* end of the one it stands in */
	uint32 nparts; /* that this one had */
	int part;	   /* -1: its legacy blocks */
	dsa_pointer
		block;	   /* of the part: in it, or behind it; Invalid: before all */
	uint32 off;	   /* in it here; 0: behind it */
	uint64 passed; /* groups passed over, as older; 0 is exact */
} WeirWalk;

extern bool weir_state_walk_on(WeirState *s, WeirWalk *walk, uint64 after,
							   TimestampTz until, WeirGroupCallback callback,
							   void *arg);
/* At most so many groups have been written after that version. */
extern uint64 weir_state_written(WeirState *s, uint64 after);
/* Or since weir_state_mark_clean; PG_UINT64_MAX: too many to be known. */
extern uint64 weir_state_dirty(WeirState *s);
/* Groups written by all publishes of this handle, each as often as it was. */
extern uint64 weir_state_writes(WeirState *s);
/* All that was published up to version, weir_state_version at the walk, has been
 * checkpointed durably: call after that transaction's commit. */
extern uint64 weir_state_version(WeirState *s);
extern uint64 weir_state_clean_version(WeirState *s);
extern void weir_state_mark_clean(WeirState *s, uint64 version);

/* ---- readers (any process) ---- */

/*
 * Copy the groups of one consistent cut that the caller may see.  Raises if
 * their states are not of the layout by which the caller would take them apart:
 * aggregates can be replaced while a view uses them.  Panes whose
 * stamp is visible to the snapshot (own or committed) are left out, all others
 * are given.  hash: only groups with this hash (NULL: all).  The callback gets
 * private copies (in the current context) outside all locks; it may raise.
 * *position and *watermark: of the cut; *closed: windows with end <= this are in
 * the heap for this snapshot, later ones are not, except that *unseen lists
 * transactions (int list of xids) whose rows are to be taken from the heap
 * though the snapshot does not see them.  All are set before the first call
 * back.  False: the state is not in memory (or went away meanwhile):
 * read the blobs instead (checkpoint.h).
 */
extern bool weir_state_read(WeirViewShared *v, const char *layout,
							Snapshot snapshot, const uint32 *hash,
							WeirGroupCallback callback, void *arg,
							WeirPosition *position, TimestampTz *watermark,
							int64 *closed, List **unseen);

/* before_shmem_exit / abort: release a cut this process still holds. */
extern void weir_state_release_cuts(void);

extern Size weir_state_memory_used(void); /* of the whole area */
/* Is more than 60 % in use of the area, or of what the view's owner may take? */
extern bool weir_state_memory_is_scarce(const WeirViewShared *v);
/* kB: the area, or what the owner may take of it */
extern int weir_state_memory_limit(const WeirViewShared *v);

/*
 * Let this process's states lie in memory of its own, which takes of
 * weir.state_memory nothing, until the end is called; then all of them are gone.
 * Meanwhile it reads no other view's memory: those look as if they had none.
 */
extern void weir_state_private_begin(void);
extern void weir_state_private_end(void);

#endif /* WEIR_STATE_H */
