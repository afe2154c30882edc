/*-------------------------------------------------------------------------
 *
 * checkpoint.h
 *	  State + log position saved as one; load it; replay starts there.  The
 *	  blob format, byte by byte, is in the head of checkpoint.c.
 *
 *-------------------------------------------------------------------------
 */
#ifndef WEIR_CHECKPOINT_H
#define WEIR_CHECKPOINT_H

#include "pg_weir.h"

#include "catalog.h"
#include "state.h"

/* What has been written ahead of the next checkpoint; all zero: nothing. */
typedef struct WeirAhead
{
	int64 seq;		/* the largest given to blobs since */
	int64 full_seq; /* blobs from this one on hold all groups; 0: they do not */
	bool slicing;	/* in the midst of a slice, which may fail */
	bool walking;	/* in the midst of a pass .. */
	WeirWalk walk;	/* .. here .. */
	uint64 version; /* .. which began at this version of the state */
	uint64 through; /* groups up to this version are in blobs; 0: no pass is
					 * complete */
	uint64 writes;	/* weir_state_writes at this version */
	uint64 pass_writes; /* weir_state_writes then */
	uint64 ngroups;		/* written by the pass */
	int passes;			/* begun */
	int64 bytes;		/* written by all passes .. */
	int64 us;			/* .. in so much time */
} WeirAhead;

/*
 * What a checkpoint of one view needs.  The callbacks reach up to flow.c.
 */
typedef struct WeirCheckpoint
{
	WeirViewShared *v;
	WeirState *state;
	WeirPositionRow row; /* last read or written; updated here */
	ItemPointerData tid; /* of that version */
	const char *layout;	 /* weir_groups_layout */
	bool full;			 /* rewrite all blobs, not only dirty groups */
	int64 blob_bytes;	 /* in weir.view_state for this generation;
								 * -1: not known yet.  Kept by the run */
	uint64 writes;		 /* weir_state_writes at the last one */
	WeirAhead ahead;

	/* Is there a window to be closed? */
	bool (*closable)(void *arg, int64 final_before);
	/* Put the final rows of windows with end <= final_before, of which no
	 * earlier checkpoint has, where they belong (v's heap with its indexes, or
	 * view_pending for a rebuild), as the owner.  Returns rows. */
	int64 (*close_windows)(void *arg, int64 final_before, TransactionId xid);
	bool overlap; /* a window may go before the panes it is made of */
	/* Other rows that belong into this transaction; may be NULL. */
	void (*also)(void *arg);
	/* NULL, or: the next transaction of the log does not fit into memory; hide
	 * the state, fold it part by part, closing windows meanwhile by
	 * weir_checkpoint_close, and set c->row.  Returns final_before. */
	int64 (*parts)(void *arg);
	/* With parts: all is written, show it; the commit follows. */
	void (*show)(void *arg, int64 closed_before);
	void *arg;
} WeirCheckpoint;

/*
 * One checkpoint in a top-level transaction of its own (none may be open):
 * stamp closing panes, insert their rows, write dirty groups as blobs, drop
 * blobs of closed panes, write the position row, commit, mark clean, sweep.
 * final_before: windows with end <= this close.  Raises on failure with the
 * transaction open (the caller aborts; the stamp of an aborted xid is
 * harmless).  False: another owner wrote the position row; give up the view.
 */
extern bool weir_checkpoint_run(WeirCheckpoint *c, int64 final_before);

/*
 * Before a checkpoint that has much to write: for about as many microseconds,
 * and in a transaction of its own (none may be open), write some of it.  What is
 * written counts for nothing until weir_checkpoint_run has written the rest, and
 * the position.  *more: call it again, after a batch perhaps; else it is time
 * for that.  Raises as weir_checkpoint_run does: say weir_checkpoint_ahead_failed
 * then.  False: another owner wrote the position row; give up the view.
 */
extern bool weir_checkpoint_ahead(WeirCheckpoint *c, int64 us, bool *more);
extern void weir_checkpoint_ahead_failed(WeirCheckpoint *c);

/* For parts: put the rows of windows with end <= final_before where they belong,
 * and note it in c->row.  False: there are none. */
extern bool weir_checkpoint_close(WeirCheckpoint *c, int64 final_before);

/* Format of the blobs this code writes: WeirPositionRow.format. */
#define WEIR_BLOB_FORMAT 1

/*
 * Write the first checkpoint of a generation that this process has not consumed
 * but been given, in the current transaction: begin, add groups, end, which
 * writes the position row, row->layout and all.
 */
typedef struct WeirCheckpointWriter WeirCheckpointWriter;

extern WeirCheckpointWriter *weir_checkpoint_begin(WeirPositionRow *row);
extern void weir_checkpoint_add(WeirCheckpointWriter *w, const WeirGroup *g);
extern void weir_checkpoint_end(WeirCheckpointWriter *w);

/*
 * Load the blobs of (view, generation) into an empty state; snapshot NULL: the
 * latest.  load: sets the hash of the group's key (as the owner); false: nobody
 * needs the group.  Checks format, major, layout, crc of every blob: 0A000/XX001
 * naming view, blob and field; hint: REFRESH.
 */
typedef bool (*WeirLoadGroup)(WeirGroup *g, void *arg);
extern void weir_checkpoint_load(const WeirPositionRow *row, WeirState *state,
								 const char *layout, Snapshot snapshot,
								 WeirLoadGroup load, void *arg);

/*
 * Read the blobs of the answering generation visible to a snapshot, newest
 * version of each group once, closed panes left out: the live part of a view
 * whose state is not in memory.  Groups are told apart by key bytes.
 * hash is 0 in *g.  *closed: windows with end <= this are in the heap; set, as
 * the others, before the first call back.  Raises if the states are not of this layout.  False: the
 * view has no position row yet.
 */
extern bool weir_checkpoint_read(Oid view, const char *layout,
								 Snapshot snapshot, WeirGroupCallback callback,
								 void *arg, WeirPosition *position,
								 TimestampTz *watermark, int64 *closed);

#endif /* WEIR_CHECKPOINT_H */
