/*-------------------------------------------------------------------------
 *
 * log.c
 *	  The append-only log of a stream: append, read from a position, trim.
 *
 * Relies on heap's own insert, delete, rewrite and visibility; guarantees that
 * a chunk is read iff its heap tuple is visible to the snapshot given, that
 * transactions come strictly by number, and that places (which are hints) never
 * decide what is read: a chunk count that differs leads to a scan.
 *
 * Format.  Every tuple of the file is a heap tuple of one attribute without
 * nulls, t_hoff 24, so the bytes from offset 24 are a chunk image (chunk.c):
 *
 *	head	WeirChunkHeader [min,max time] [WeirRecord] [WeirPieceLink] body
 *	piece	WeirChunkHeader (flag PIECE, no rows, xid and chunk_no of the head)
 *			[WeirPieceLink] bytes
 *
 * An image of up to WEIR_CHUNK_MAX bytes is a head alone, stored as it is.  A
 * longer one is cut: pieces are written first, last one first, so that each
 * link can hold the TID of the next; head and pieces have one xmin and cmin and
 * are deleted together, so who sees the head sees them all.  Joining takes out
 * the link and the flag HAS_NEXT, which gives the image back byte for byte.
 *
 * Private descriptor.  heap_insert and friends toast, log for decoding and
 * count by what the Relation says, and the user's descriptor says nothing about
 * our tuples.  So they are given a shallow copy of the Relation with a
 * descriptor of one varlena column of storage plain, replica identity nothing
 * and no statistics.  It is made per call after RelationGetSmgr on the original:
 * the smgr keeps a pointer to its owner's field, which must not be the copy's.
 *
 * ADOPT records.  A prepared transaction's record has number 0; the transaction
 * that finds it committed writes a chunk without rows whose record, of kind
 * ADOPT, says "xid `adopts` has number `number`".  Such a chunk belongs to no
 * transaction's chunk count, and the transaction that wrote it is not one of
 * the stream's transactions because of it.
 *
 * Locks: adoption of a stream's prepared transactions and their collection
 * exclude each other by an object lock (weir_log_lock_adoption), trimming and
 * the beginning of a view's history by another (weir_log_lock_history).  Of the
 * order of transactions (order.c) the ring is read here, under order_lock.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/heapam.h"
#include "access/hio.h"
#include "access/htup_details.h"
#include "access/multixact.h"
#include "access/rewriteheap.h"
#include "access/tableam.h"
#include "access/transam.h"
#include "access/xact.h"
#include "catalog/pg_class.h"
#include "catalog/pg_type.h"
#include "executor/tuptable.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "storage/bufmgr.h"
#include "storage/lmgr.h"
#include "storage/procarray.h"
#include "utils/hsearch.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

#include "compat.h"
#include "debug.h"
#include "log.h"
#include "order.h"
#include "runs.h"
#include "shmem.h"

#define TUPLE_HOFF MAXALIGN(SizeofHeapTupleHeader)

#define PIECE_MAGIC 0x57504331 /* "WPC1" */

typedef struct WeirPieceLink
{
	uint32 magic;
	ItemPointerData next; /* the piece that follows */
	uint16 pad;
	uint32 pad2;
	uint64 rest; /* bytes of the image from there on */
} WeirPieceLink;

/* Entries copied out of the ring under one hold of order_lock. */
#define RING_BATCH 64

/* A reader keeps at most so many transactions; the others are read again. */
#define MAX_PENDING 200000

/* --------------------------------------------------- private descriptor */

typedef struct Shadow
{
	RelationData rel;
	FormData_pg_class form;
} Shadow;

static TupleDesc
chunk_descriptor(void)
{
	static TupleDesc desc = NULL;

	if (desc == NULL)
	{
		MemoryContext old = MemoryContextSwitchTo(TopMemoryContext);
		TupleDesc d = CreateTemplateTupleDesc(1);

		TupleDescInitEntry(d, 1, "chunk", BYTEAOID, -1, 0);
		TupleDescAttr(d, 0)->attalign = TYPALIGN_DOUBLE;
		TupleDescAttr(d, 0)->attstorage = TYPSTORAGE_PLAIN;
		weir_populate_compact_attribute(d, 0);
		MemoryContextSwitchTo(old);
		desc = d;
	}
	return desc;
}

/*
 * Good for one call: see the head.  The copy has the relation's file handle,
 * which any invalidation message may close: nothing that looks at a catalog may
 * come between.
 */
static Relation
make_shadow(Shadow *s, Relation rel)
{
	TupleDesc desc = chunk_descriptor();

	RelationGetSmgr(rel);
	s->rel = *rel;
	s->form = *rel->rd_rel;
	s->form.relreplident = REPLICA_IDENTITY_NOTHING;
	s->form.relnatts = desc->natts;
	s->rel.rd_rel = &s->form;
	s->rel.rd_att = desc;
	s->rel.pgstat_info = NULL;
	s->rel.pgstat_enabled = false;
	return &s->rel;
}

/* --------------------------------------------------------------- append */

/* The tuple's bytes from TUPLE_HOFF on are the caller's to fill. */
static void
init_tuple(HeapTuple tup, char *space, Size len, Oid relid)
{
	tup->t_len = TUPLE_HOFF + len;
	ItemPointerSetInvalid(&tup->t_self);
	tup->t_tableOid = relid;
	tup->t_data = (HeapTupleHeader) space;
	memset(space, 0, TUPLE_HOFF);
	HeapTupleHeaderSetNatts(tup->t_data, 1);
	tup->t_data->t_infomask = HEAP_HASVARWIDTH;
	tup->t_data->t_hoff = TUPLE_HOFF;
}

/* Puts a tuple into the file and says where. */
typedef ItemPointerData (*StoreTuple)(void *arg, HeapTuple tup);

/* Store an image, in pieces if need be; returns the place of the head. */
static ItemPointerData
store_image(Oid relid, const char *image, Size len, StoreTuple store, void *arg)
{
	/* the union aligns it */
	union
	{
		char data[BLCKSZ];
		double align;
	} space;
	HeapTupleData tup;
	const WeirChunkHeader *header = (const WeirChunkHeader *) image;
	WeirChunkHeader *h = (WeirChunkHeader *) (space.data + TUPLE_HOFF);
	Size parts = weir_chunk_head_length(image);
	Size room = WEIR_CHUNK_MAX - sizeof(WeirChunkHeader);
	Size first;
	Size pos;
	bool linked = false;
	WeirPieceLink link;

	if (len <= WEIR_CHUNK_MAX)
	{
		init_tuple(&tup, space.data, len, relid);
		memcpy(space.data + TUPLE_HOFF, image, len);
		SET_VARSIZE(h, len);
		return store(arg, &tup);
	}

	/*
	 * The head takes what fits, then come full pieces; the last piece takes
	 * what is left.  A piece that links on has less room than the last one.
	 */
	first = WEIR_CHUNK_MAX - parts - sizeof(WeirPieceLink);
	memset(&link, 0, sizeof(link));
	link.magic = PIECE_MAGIC;
	room -= sizeof(WeirPieceLink);
	pos = parts + first + (len - parts - first - 1) / room * room;
	for (;;)
	{
		Size n = Min(len - pos, room);
		char *p = (char *) (h + 1);

		CHECK_FOR_INTERRUPTS();
		memset(h, 0, sizeof(*h));
		h->format = header->format;
		h->flags = WEIR_CHUNK_PIECE;
		h->natts = header->natts;
		h->xid = header->xid;
		h->chunk_no = header->chunk_no;
		h->raw_len = n;
		if (linked)
		{
			h->flags |= WEIR_CHUNK_HAS_NEXT;
			memcpy(p, &link, sizeof(link));
			p += sizeof(link);
		}
		memcpy(p, image + pos, n);
		p += n;
		init_tuple(&tup, space.data, p - (char *) h, relid);
		SET_VARSIZE(h, p - (char *) h);
		weir_chunk_seal_head((char *) h);
		link.next = store(arg, &tup);
		link.rest = len - pos;
		linked = true;
		if (pos == parts + first)
			break;
		pos -= room;
	}

	init_tuple(&tup, space.data, WEIR_CHUNK_MAX, relid);
	memcpy(h, image, parts);
	SET_VARSIZE(h, WEIR_CHUNK_MAX);
	h->flags |= WEIR_CHUNK_HAS_NEXT;
	weir_chunk_seal_head((char *) h);
	memcpy((char *) h + parts, &link, sizeof(link));
	memcpy((char *) h + parts + sizeof(link), image + parts, first);
	return store(arg, &tup);
}

typedef struct AppendTo
{
	Relation rel;
	CommandId cid;
} AppendTo;

static ItemPointerData
append_tuple(void *arg, HeapTuple tup)
{
	AppendTo *append = arg;
	Shadow shadow;

	weir_debug_point("log_append");
	heap_insert(make_shadow(&shadow, append->rel), tup, append->cid,
				HEAP_INSERT_NO_LOGICAL, NULL);
	Assert(shadow.rel.rd_smgr == append->rel->rd_smgr);
	return tup->t_self;
}

/*
 * Skipping the FSM or freezing (COPY FREEZE) is asked for by the statement that
 * inserted a row; its chunk may be written by a later one.  So options count
 * for nothing here: chunks fill the pages that retention has emptied.
 */
ItemPointerData
weir_log_append(Relation rel, const char *image, Size len, CommandId cid,
				int options)
{
	AppendTo append = {rel, cid};

	return store_image(RelationGetRelid(rel), image, len, append_tuple,
					   &append);
}

void
weir_places_add(WeirPlace *places, int *nplaces, ItemPointer tid)
{
	BlockNumber block = ItemPointerGetBlockNumber(tid);
	WeirPlace *p;

	if (*nplaces > 0)
	{
		p = &places[*nplaces - 1];
		if (block >= p->first && block <= p->last + 1)
		{
			p->last = Max(p->last, block);
			p->offset = 0;
			return;
		}
		if (*nplaces == WEIR_MAX_PLACES)
		{
			p->first = Min(p->first, block);
			p->last = Max(p->last, block);
			p->offset = 0;
			return;
		}
	}
	p = &places[(*nplaces)++];
	p->first = block;
	p->last = block;
	p->offset = ItemPointerGetOffsetNumber(tid);
}

/* ------------------------------------------------------- reading chunks */

static void
chunk_is_damaged(Oid relid, const ItemPointerData *tid, const char *what)
{
	char *name = get_rel_name(relid);

	ereport(
		ERROR,
		(errcode(ERRCODE_DATA_CORRUPTED),
		 errmsg("log of stream \"%s\" is damaged", name ? name : "?"),
		 errdetail("Chunk (%u,%u) %s.", ItemPointerGetBlockNumberNoCheck(tid),
				   ItemPointerGetOffsetNumberNoCheck(tid), what)));
}

/*
 * The image in a tuple; its header is checked as far as this file relies on it
 * (chunk.c checks the rest).
 */
static const char *
tuple_image(HeapTuple tup, Size *len)
{
	const WeirChunkHeader *h;
	Size need;

	if (tup->t_data->t_hoff != TUPLE_HOFF ||
		tup->t_len < TUPLE_HOFF + sizeof(WeirChunkHeader))
		chunk_is_damaged(tup->t_tableOid, &tup->t_self,
						 "is not one by its length");
	h = (const WeirChunkHeader *) ((char *) tup->t_data + TUPLE_HOFF);
	*len = tup->t_len - TUPLE_HOFF;
	if (h->format != WEIR_CHUNK_FORMAT)
		ereport(
			ERROR,
			(errcode(h->format > WEIR_CHUNK_FORMAT
						 ? ERRCODE_FEATURE_NOT_SUPPORTED
						 : ERRCODE_DATA_CORRUPTED),
			 errmsg("log of stream \"%s\" has a chunk of unknown format %u",
					get_rel_name(tup->t_tableOid), h->format),
			 errdetail("It is (%u,%u).",
					   ItemPointerGetBlockNumberNoCheck(&tup->t_self),
					   ItemPointerGetOffsetNumberNoCheck(&tup->t_self)),
			 errhint(
				 "It is damaged, or a newer release of pg_weir wrote it.")));
	need = weir_chunk_head_length((const char *) h);
	if (h->flags & WEIR_CHUNK_HAS_NEXT)
		need += sizeof(WeirPieceLink);
	if (need > *len)
		chunk_is_damaged(tup->t_tableOid, &tup->t_self, "is too short");
	if (!weir_chunk_head_is_sealed((const char *) h))
		chunk_is_damaged(tup->t_tableOid, &tup->t_self,
						 "has a wrong checksum of its header");
	return (const char *) h;
}

static bool
is_head(const char *image)
{
	return !(((const WeirChunkHeader *) image)->flags & WEIR_CHUNK_PIECE);
}

static bool
has_next(const char *image)
{
	return (((const WeirChunkHeader *) image)->flags & WEIR_CHUNK_HAS_NEXT) !=
		   0;
}

static inline void
check_link(bool ok, Oid relid, const char *what)
{
	char *name;

	if (likely(ok))
		return;
	name = get_rel_name(relid);
	ereport(ERROR,
			(errcode(ERRCODE_DATA_CORRUPTED),
			 errmsg("log of stream \"%s\" is damaged", name ? name : "?"),
			 errdetail_internal("%s", what)));
}

static void
read_link(Oid relid, const char *image, WeirPieceLink *link)
{
	memcpy(link, image + weir_chunk_head_length(image), sizeof(*link));
	check_link(link->magic == PIECE_MAGIC, relid,
			   "A link has no magic number.");
}

/* Length of the joined image. */
static Size
joined_length(Oid relid, const char *image, Size len)
{
	WeirPieceLink link;

	if (!has_next(image))
		return len;
	read_link(relid, image, &link);
	check_link(link.rest < ((uint64) 1 << 40), relid, "A link has no length.");
	return len - sizeof(WeirPieceLink) + link.rest;
}

/*
 * Join a head and its pieces into dst, which has room for joined_length bytes.
 * How a piece is found visible: with the snapshot that shows the head.
 */
static void
join_pieces(Relation rel, Snapshot snapshot, const char *image, Size len,
			char *dst)
{
	WeirChunkHeader head;
	WeirPieceLink link;
	Size parts;
	Oid relid = RelationGetRelid(rel);
	Size total = joined_length(relid, image, len);
	Size pos;

	memcpy(&head, image, sizeof(head));
	parts = weir_chunk_head_length(image);
	read_link(relid, image, &link);
	memcpy(dst, image, parts);
	memcpy(dst + parts, image + parts + sizeof(link),
		   len - parts - sizeof(link));
	pos = len - sizeof(link);

	for (;;)
	{
		HeapTupleData tup;
		Buffer buffer;
		const WeirChunkHeader *h;
		const char *piece;
		Size n;
		Size skip = sizeof(WeirChunkHeader);
		bool more;

		CHECK_FOR_INTERRUPTS();
		tup.t_self = link.next;
		check_link(ItemPointerIsValid(&link.next) &&
					   heap_fetch(rel, snapshot, &tup, &buffer, false),
				   relid, "A piece of a chunk is missing.");
		piece = tuple_image(&tup, &n);
		h = (const WeirChunkHeader *) piece;
		check_link(!is_head(piece) && h->chunk_no == head.chunk_no &&
					   FullTransactionIdEquals(h->xid, head.xid),
				   relid, "A piece is of another chunk.");
		more = has_next(piece);
		if (more)
		{
			read_link(relid, piece, &link);
			skip += sizeof(link);
		}
		check_link(n - skip <= total - pos, relid,
				   "A chunk is longer than its link says.");
		memcpy(dst + pos, piece + skip, n - skip);
		pos += n - skip;
		ReleaseBuffer(buffer);
		if (!more)
			break;
	}
	check_link(pos == total, relid, "A chunk is shorter than its link says.");
	((WeirChunkHeader *) dst)->flags &= ~WEIR_CHUNK_HAS_NEXT;
	/* four bytes of length do for one gigabyte; the true one is passed on */
	SET_VARSIZE(dst, Min(total, MaxAllocSize));
}

/* A palloc'd copy, joined. */
static char *
copy_image(Relation rel, Snapshot snapshot, const char *image, Size len,
		   Size *total)
{
	char *copy;

	*total = joined_length(RelationGetRelid(rel), image, len);
	copy = palloc_extended(*total, MCXT_ALLOC_HUGE);
	if (has_next(image))
		join_pieces(rel, snapshot, image, len, copy);
	else
		memcpy(copy, image, len);
	return copy;
}

typedef struct BlockRange
{
	BlockNumber first;
	BlockNumber end; /* exclusive; InvalidBlockNumber: all that follow */
} BlockRange;

struct WeirLogScan
{
	Relation rel;
	Snapshot snapshot;
	TableScanDesc heap;
	TupleTableSlot *slot;
	char *joined; /* a joined image, or NULL */
	MemoryContext cxt;
	bool limited; /* to chunks that meet min_time..max_time */
	TimestampTz min_time;
	TimestampTz max_time;
	uint64 nread;
	uint64 nskipped;
	bool with_pieces;	/* they come as if they were heads */
	WeirRuns *runs;		/* loaded for limits, or NULL */
	BlockRange *ranges; /* what is read; NULL: everything */
	int nranges;
	int range; /* that is being read; -1: none yet */
};

WeirLogScan *
weir_log_scan_begin_parallel(Relation rel, Snapshot snapshot,
							 ParallelTableScanDesc parallel)
{
	WeirLogScan *scan = palloc0(sizeof(WeirLogScan));

	scan->rel = rel;
	scan->snapshot = snapshot;
	scan->cxt = CurrentMemoryContext;
	/* no synchronised scans: rows come in the order of the log's blocks */
	scan->heap =
		heap_beginscan(rel, snapshot, 0, NULL, parallel,
					   SO_TYPE_SEQSCAN | SO_ALLOW_STRAT | SO_ALLOW_PAGEMODE);
	scan->slot =
		MakeSingleTupleTableSlot(chunk_descriptor(), &TTSOpsBufferHeapTuple);
	return scan;
}

WeirLogScan *
weir_log_scan_begin(Relation rel, Snapshot snapshot, BlockNumber start,
					BlockNumber nblocks)
{
	WeirLogScan *scan = weir_log_scan_begin_parallel(rel, snapshot, NULL);

	if (start != 0 || nblocks != InvalidBlockNumber)
		heap_setscanlimits(scan->heap, start, nblocks);
	return scan;
}

/*
 * Read what is not in runs that are to be passed over.  Before anything is read;
 * not for scans that are parallel, turn round, or have limits in blocks.
 */
static void
pass_over(WeirLogScan *scan, const WeirRuns *runs)
{
	MemoryContext old;
	BlockNumber next = 0; /* what is before that is in ranges, or is not read */
	bool any = false;

	if (scan->ranges)
		pfree(scan->ranges);
	scan->ranges = NULL;
	scan->nranges = 0;
	for (int i = 0; i < runs->n && !any; i++)
		any = runs->runs[i].skip;
	if (!any)
		return;
	old = MemoryContextSwitchTo(scan->cxt);
	scan->ranges =
		palloc_extended((runs->n + 1) * sizeof(BlockRange), MCXT_ALLOC_HUGE);
	MemoryContextSwitchTo(old);
	for (int i = 0; i < runs->n; i++)
	{
		const WeirRun *run = &runs->runs[i];

		if (!run->skip)
			continue;
		if (run->first > next)
		{
			scan->ranges[scan->nranges].first = next;
			scan->ranges[scan->nranges++].end = run->first;
		}
		next = run->first + run->blocks;
	}
	scan->ranges[scan->nranges].first = next;
	scan->ranges[scan->nranges++].end = InvalidBlockNumber;
	scan->range = -1;
}

/* Go on with the next range that there is something of; false: there is none. */
static bool
next_range(WeirLogScan *scan)
{
	HeapScanDesc heap = (HeapScanDesc) scan->heap;

	while (++scan->range < scan->nranges)
	{
		const BlockRange *r = &scan->ranges[scan->range];
		BlockNumber end;

		heap_rescan(scan->heap, NULL, false, false, false, false);
		end = Min(r->end, heap->rs_nblocks);
		if (r->first >= end)
			continue;
		heap_setscanlimits(scan->heap, r->first, end - r->first);
		return true;
	}
	return false;
}

/* The next tuple of the ranges. */
static bool
next_tuple(WeirLogScan *scan, ScanDirection direction)
{
	if (scan->ranges == NULL)
		return heap_getnextslot(scan->heap, direction, scan->slot);
	Assert(ScanDirectionIsForward(direction));
	if (scan->range < 0 && !next_range(scan))
		return false;
	while (scan->range < scan->nranges)
	{
		if (heap_getnextslot(scan->heap, direction, scan->slot))
			return true;
		if (!next_range(scan))
			break;
	}
	ExecClearTuple(scan->slot);
	return false;
}

/* The next head as it is stored. */
static const char *
scan_next_stored(WeirLogScan *scan, bool forward, Size *len, ItemPointer tid)
{
	if (scan->joined)
	{
		pfree(scan->joined);
		scan->joined = NULL;
	}
	while (next_tuple(scan,
					  forward ? ForwardScanDirection : BackwardScanDirection))
	{
		HeapTuple tup = ((BufferHeapTupleTableSlot *) scan->slot)->base.tuple;
		const char *image = tuple_image(tup, len);

		if (!is_head(image) && !scan->with_pieces)
			continue;
		*tid = tup->t_self;
		return image;
	}
	return NULL;
}

void
weir_log_scan_limit(WeirLogScan *scan, TimestampTz min_time,
					TimestampTz max_time, bool pass_over_runs)
{
	scan->limited = true;
	scan->min_time = min_time;
	scan->max_time = max_time;
	if (pass_over_runs)
	{
		MemoryContext old = MemoryContextSwitchTo(scan->cxt);

		if (scan->runs == NULL)
			scan->runs = weir_runs_load(scan->rel);
		MemoryContextSwitchTo(old);
		for (int i = 0; i < scan->runs->n; i++)
		{
			WeirRun *run = &scan->runs->runs[i];

			run->skip = run->max_time < min_time || run->min_time > max_time;
			if (run->skip)
				scan->nskipped += run->nchunks;
		}
		pass_over(scan, scan->runs);
	}
}

void
weir_log_scan_counts(WeirLogScan *scan, uint64 *nread, uint64 *nskipped)
{
	*nread = scan->nread;
	*nskipped = scan->nskipped;
}

/* Is there no event of the span that a scan is limited to in this chunk? */
static bool
outside_limits(const WeirLogScan *scan, const char *image)
{
	TimestampTz times[2];

	if (!scan->limited ||
		!(((const WeirChunkHeader *) image)->flags & WEIR_CHUNK_HAS_TIME))
		return false;
	memcpy(times, image + sizeof(WeirChunkHeader), sizeof(times));
	return times[1] < scan->min_time || times[0] > scan->max_time;
}

bool
weir_log_scan_next(WeirLogScan *scan, bool forward, const char **image,
				   Size *len, ItemPointer tid)
{
	const char *stored;
	Size n;

	for (;;)
	{
		stored = scan_next_stored(scan, forward, &n, tid);
		if (stored == NULL)
			return false;
		if (!outside_limits(scan, stored))
			break;
		scan->nskipped++;
	}
	if (((const WeirChunkHeader *) stored)->nrows > 0)
		scan->nread++;
	if (has_next(stored))
	{
		MemoryContext old = MemoryContextSwitchTo(scan->cxt);

		scan->joined = copy_image(scan->rel, scan->snapshot, stored, n, len);
		MemoryContextSwitchTo(old);
		*image = scan->joined;
	}
	else
	{
		*image = stored;
		*len = n;
	}
	return true;
}

/* The parts of a stored head that are not its body. */
static void
read_parts(const char *image, WeirLogHeader *h)
{
	const char *p = image + sizeof(h->chunk);

	memcpy(&h->chunk, image, sizeof(h->chunk));
	h->min_time = WEIR_NO_TIME;
	h->max_time = WEIR_NO_TIME;
	if (h->chunk.flags & WEIR_CHUNK_HAS_TIME)
	{
		memcpy(&h->min_time, p, sizeof(int64));
		memcpy(&h->max_time, p + sizeof(int64), sizeof(int64));
		p += 2 * sizeof(int64);
	}
	h->has_record = (h->chunk.flags & WEIR_CHUNK_RECORD) != 0;
	if (h->has_record)
		memcpy(&h->record, p, sizeof(h->record));
	else
		memset(&h->record, 0, sizeof(h->record));
}

bool
weir_log_scan_next_header(WeirLogScan *scan, WeirLogHeader *h)
{
	const char *image;

	image = scan_next_stored(scan, true, &h->len, &h->tid);
	if (image == NULL)
		return false;
	if (is_head(image))
		h->len = joined_length(RelationGetRelid(scan->rel), image, h->len);
	read_parts(image, h);
	return true;
}

void
weir_log_scan_rewind(WeirLogScan *scan)
{
	ExecClearTuple(scan->slot);
	if (scan->joined)
		pfree(scan->joined);
	scan->joined = NULL;
	heap_rescan(scan->heap, NULL, false, false, false, false);
	/* it would begin where the last range did, and turn round at the end */
	if (scan->heap->rs_parallel == NULL)
		heap_setscanlimits(scan->heap, 0, InvalidBlockNumber);
	scan->range = -1;
}

void
weir_log_scan_end(WeirLogScan *scan)
{
	ExecDropSingleTupleTableSlot(scan->slot);
	heap_endscan(scan->heap);
	if (scan->joined)
		pfree(scan->joined);
	if (scan->ranges)
		pfree(scan->ranges);
	if (scan->runs)
		weir_runs_free(scan->runs);
	pfree(scan);
}

bool
weir_log_fetch(Relation rel, Snapshot snapshot, ItemPointer tid, char **image,
			   Size *len)
{
	HeapTupleData tup;
	Buffer buffer;
	const char *stored;
	Size n;
	bool found = false;

	if (!ItemPointerIsValid(tid) ||
		ItemPointerGetBlockNumber(tid) >= RelationGetNumberOfBlocks(rel))
		return false;
	tup.t_self = *tid;
	if (!heap_fetch(rel, snapshot, &tup, &buffer, false))
		return false;
	stored = tuple_image(&tup, &n);
	if (is_head(stored))
	{
		*image = copy_image(rel, snapshot, stored, n, len);
		found = true;
	}
	ReleaseBuffer(buffer);
	return found;
}

/*
 * Line pointers, headers and record flags of the visible heads of a page, in
 * line order; chunks has room for MaxHeapTuplesPerPage.  The caller has a pin.
 */
int
weir_log_block_chunks(Relation rel, Snapshot snapshot, Buffer buffer,
					  WeirBlockChunk *chunks)
{
	Page page;
	OffsetNumber max;
	int n = 0;

	LockBuffer(buffer, BUFFER_LOCK_SHARE);
	page = BufferGetPage(buffer);
	max = PageGetMaxOffsetNumber(page);
	for (OffsetNumber off = FirstOffsetNumber; off <= max; off++)
	{
		ItemId item = PageGetItemId(page, off);
		HeapTupleData tup;
		const WeirChunkHeader *h;
		Size len;

		if (!ItemIdIsNormal(item))
			continue;
		tup.t_data = (HeapTupleHeader) PageGetItem(page, item);
		tup.t_len = ItemIdGetLength(item);
		tup.t_tableOid = RelationGetRelid(rel);
		ItemPointerSet(&tup.t_self, BufferGetBlockNumber(buffer), off);
		if (!HeapTupleSatisfiesVisibility(&tup, snapshot, buffer))
			continue;
		h = (const WeirChunkHeader *) tuple_image(&tup, &len);
		if (!is_head((const char *) h))
			continue;
		chunks[n].offset = off;
		memcpy(&chunks[n].header, h, sizeof(*h));
		chunks[n].adopts = false;
		if (h->flags & WEIR_CHUNK_RECORD)
		{
			WeirLogHeader parts;

			read_parts((const char *) h, &parts);
			chunks[n].adopts = (parts.record.kind == WEIR_RECORD_ADOPT);
		}
		n++;
	}
	LockBuffer(buffer, BUFFER_LOCK_UNLOCK);
	return n;
}

/* ----------------------------------- collecting transactions from the log */

/* A transaction of which some chunks have been met. */
typedef struct Collected
{
	FullTransactionId xid; /* hash key */
	uint32 nchunks;
	uint64 nrows;
	uint64 nbytes;
	int nplaces;
	WeirPlace places[WEIR_MAX_PLACES];
	bool has_record;
	bool elsewhere; /* some are in runs passed over .. */
	bool wanted;	/* .. which have to be read for it */
	WeirRecord record;
} Collected;

/* What ADOPT records say. */
typedef struct Adopted
{
	FullTransactionId xid; /* hash key: the prepared transaction */
	WeirNumber number;
	TimestampTz arrival;
} Adopted;

/* txn->number is WEIR_NO_NUMBER for one that is not adopted. */
typedef void (*CollectCallback)(void *arg, const WeirTxn *txn);

typedef struct Collect
{
	/* set by the caller */
	Relation rel;
	Snapshot snapshot;
	WeirNumber from; /* 0: those without a number too */
	bool strict;	 /* an incomplete one is an error; with a dirty snapshot it
					  * is a running one */
	const WeirRuns *runs; /* those to skip; NULL: none.  A transaction that is
						   * wanted has no record in one of those */
	CollectCallback callback;
	void *arg;
	/* ours */
	HTAB *collected;
	HTAB *adopted;
	/* for the caller */
	uint64 nbytes; /* of the images that were met, but for ADOPT records */
} Collect;

static HTAB *
make_xid_hash(const char *name, Size entrysize, MemoryContext cxt)
{
	HASHCTL ctl;

	ctl.keysize = sizeof(FullTransactionId);
	ctl.entrysize = entrysize;
	ctl.hcxt = cxt;
	return hash_create(name, 256, &ctl, HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
}

static void
report_collected(const Collect *w, const Collected *c, WeirNumber number,
				 TimestampTz arrival)
{
	WeirTxn txn;

	memset(&txn, 0, sizeof(txn));
	txn.number = number;
	txn.xid = c->xid;
	txn.arrival = arrival;
	txn.watermark = c->record.watermark;
	txn.kind = c->record.kind;
	txn.nchunks = c->nchunks;
	txn.nrows = c->nrows;
	txn.nbytes = c->nbytes;
	txn.nplaces = c->nplaces;
	memcpy(txn.places, c->places, sizeof(txn.places));
	w->callback(w->arg, &txn);
}

static bool
is_complete(const Collected *c)
{
	return c->has_record && c->nchunks == c->record.nchunks;
}

/* The headers of a scan.  known: only of transactions that are wanted. */
static void
collect_headers(Collect *w, WeirLogScan *scan, bool known)
{
	WeirLogHeader h;

	while (weir_log_scan_next_header(scan, &h))
	{
		Collected *c;
		bool found;

		CHECK_FOR_INTERRUPTS();
		if (h.has_record && h.record.kind == WEIR_RECORD_ADOPT)
		{
			Adopted *a =
				hash_search(w->adopted, &h.record.adopts, HASH_ENTER, &found);

			a->number = h.record.number;
			a->arrival = h.record.arrival;
			continue;
		}
		if (!known)
			w->nbytes += h.len;
		/* the usual case needs no memory */
		if (h.has_record && h.record.nchunks == 1 &&
			h.record.number != WEIR_NO_NUMBER && h.record.number < w->from)
			continue;

		c = hash_search(w->collected, &h.chunk.xid,
						known ? HASH_FIND : HASH_ENTER, &found);
		if (c == NULL || (known && !c->wanted))
			continue;
		if (!found)
		{
			memset(c, 0, sizeof(*c));
			c->xid = h.chunk.xid;
		}
		c->nchunks++;
		c->nrows += h.chunk.nrows;
		c->nbytes += h.len;
		weir_places_add(c->places, &c->nplaces, &h.tid);
		if (h.has_record)
		{
			Ensure(!c->has_record, "transaction has two records");
			c->has_record = true;
			c->record = h.record;
		}
		if (is_complete(c) && c->record.number != WEIR_NO_NUMBER)
		{
			if (c->record.number >= w->from)
				report_collected(w, c, c->record.number, c->record.arrival);
			hash_search(w->collected, &h.chunk.xid, HASH_REMOVE, NULL);
		}
	}
}

/*
 * Of the transactions that are not complete, those that go on in runs which have
 * been passed over: mark them, and read these runs if the record says that they
 * are wanted.  One whose record is in such a run is not.
 */
static void
collect_elsewhere(Collect *w)
{
	WeirRuns again = {.n = 0};
	WeirLogScan *scan;

	if (w->runs == NULL || hash_get_num_entries(w->collected) == 0)
		return;
	again.runs =
		palloc_extended(Max(w->runs->n, 1) * sizeof(WeirRun), MCXT_ALLOC_HUGE);
	for (int i = 0; i < w->runs->n; i++)
	{
		const WeirRun *run = &w->runs->runs[i];
		bool wanted = false;

		for (int j = 0; run->skip && j < run->nopen; j++)
		{
			Collected *c =
				hash_search(w->collected, &run->open[j], HASH_FIND, NULL);

			if (c == NULL || is_complete(c))
				continue;
			c->elsewhere = true;
			c->wanted = c->has_record && (c->record.number == WEIR_NO_NUMBER ||
										  c->record.number >= w->from);
			wanted = wanted || c->wanted;
		}
		if (wanted)
			again.runs[again.n++] = *run;
	}
	for (int i = 0; i < again.n; i++)
	{
		scan = weir_log_scan_begin(w->rel, w->snapshot, again.runs[i].first,
								   again.runs[i].blocks);
		collect_headers(w, scan, true);
		weir_log_scan_end(scan);
	}
	pfree(again.runs);
}

/*
 * Scan all headers visible to the snapshot and report each transaction whose
 * chunks are all there, with number >= from.  Only transactions that are not yet
 * complete are kept in memory.
 */
static void
collect_transactions(Collect *w)
{
	MemoryContext cxt = AllocSetContextCreate(
		CurrentMemoryContext, "weir log collect", ALLOCSET_DEFAULT_SIZES);
	WeirLogScan *scan =
		weir_log_scan_begin(w->rel, w->snapshot, 0, InvalidBlockNumber);
	HASH_SEQ_STATUS seq;
	Collected *c;

	w->collected = make_xid_hash("weir collected", sizeof(Collected), cxt);
	w->adopted = make_xid_hash("weir adopted", sizeof(Adopted), cxt);
	w->nbytes = 0;
	if (w->runs)
		pass_over(scan, w->runs);
	collect_headers(w, scan, false);
	weir_log_scan_end(scan);
	collect_elsewhere(w);

	/* what is left was prepared, or is incomplete, or not wanted */
	hash_seq_init(&seq, w->collected);
	while ((c = hash_seq_search(&seq)) != NULL)
	{
		Adopted *a;

		if (!is_complete(c))
		{
			if (w->strict && (!c->elsewhere || c->wanted))
				ereport(ERROR,
						(errcode(ERRCODE_DATA_CORRUPTED),
						 errmsg("log of stream \"%s\" is damaged",
								RelationGetRelationName(w->rel)),
						 errdetail("Transaction " UINT64_FORMAT
								   " has %u chunks, its record says %u.",
								   U64FromFullTransactionId(c->xid), c->nchunks,
								   c->has_record ? c->record.nchunks : 0)));
			continue;
		}
		if (c->record.number != WEIR_NO_NUMBER)
			continue;
		a = hash_search(w->adopted, &c->xid, HASH_FIND, NULL);
		if (a == NULL)
		{
			if (w->from == WEIR_NO_NUMBER)
				report_collected(w, c, WEIR_NO_NUMBER, WEIR_NO_TIME);
		}
		else if (a->number >= w->from)
			report_collected(w, c, a->number, a->arrival);
	}
	MemoryContextDelete(cxt);
}

/* ---------------------------------------------------- chunks of a transaction */

typedef struct ChunkPlace
{
	uint32 chunk_no;
	ItemPointerData tid;
} ChunkPlace;

struct WeirChunkCursor
{
	Relation rel;
	Snapshot snapshot;
	ChunkPlace *chunks;
	int nchunks;
	int space;
	int next;
};

static void
remember_chunk(WeirChunkCursor *c, uint32 chunk_no, ItemPointer tid)
{
	if (c->nchunks == c->space)
	{
		c->space = c->space ? c->space * 2 : 16;
		c->chunks =
			c->chunks ? repalloc_huge(c->chunks, c->space * sizeof(ChunkPlace))
					  : palloc(c->space * sizeof(ChunkPlace));
	}
	c->chunks[c->nchunks].chunk_no = chunk_no;
	c->chunks[c->nchunks].tid = *tid;
	c->nchunks++;
}

static void
find_in_block(WeirChunkCursor *c, BlockNumber block, FullTransactionId xid,
			  OffsetNumber only)
{
	WeirBlockChunk chunks[MaxHeapTuplesPerPage];
	Buffer buffer;
	int n;

	CHECK_FOR_INTERRUPTS();
	buffer = ReadBuffer(c->rel, block);
	n = weir_log_block_chunks(c->rel, c->snapshot, buffer, chunks);
	for (int i = 0; i < n; i++)
	{
		ItemPointerData tid;

		if (!FullTransactionIdEquals(chunks[i].header.xid, xid) ||
			chunks[i].adopts || (only != 0 && chunks[i].offset != only))
			continue;
		ItemPointerSet(&tid, block, chunks[i].offset);
		remember_chunk(c, chunks[i].header.chunk_no, &tid);
	}
	ReleaseBuffer(buffer);
}

static void
find_in_file(WeirChunkCursor *c, FullTransactionId xid)
{
	WeirLogScan *scan =
		weir_log_scan_begin(c->rel, c->snapshot, 0, InvalidBlockNumber);
	WeirLogHeader h;

	while (weir_log_scan_next_header(scan, &h))
	{
		CHECK_FOR_INTERRUPTS();
		if (FullTransactionIdEquals(h.chunk.xid, xid) &&
			!(h.has_record && h.record.kind == WEIR_RECORD_ADOPT))
			remember_chunk(c, h.chunk.chunk_no, &h.tid);
	}
	weir_log_scan_end(scan);
}

static int
compare_chunks(const void *a, const void *b)
{
	uint32 x = ((const ChunkPlace *) a)->chunk_no;
	uint32 y = ((const ChunkPlace *) b)->chunk_no;

	return (x > y) - (x < y);
}

/* Fills the cursor; false: the log does not hold what txn says. */
static bool
find_chunks(WeirChunkCursor *c, const WeirTxn *txn)
{
	BlockNumber nblocks = RelationGetNumberOfBlocks(c->rel);

	for (int i = 0; i < txn->nplaces; i++)
	{
		const WeirPlace *p = &txn->places[i];

		for (BlockNumber b = p->first; b <= p->last && b < nblocks; b++)
		{
			bool seen = false;

			/* joined ranges may overlap */
			for (int j = 0; j < i; j++)
				if (b >= txn->places[j].first && b <= txn->places[j].last)
					seen = true;
			if (!seen)
				find_in_block(c, b, txn->xid, 0);
		}
	}
	if (c->nchunks != txn->nchunks)
	{
		c->nchunks = 0;
		find_in_file(c, txn->xid);
	}
	qsort(c->chunks, c->nchunks, sizeof(ChunkPlace), compare_chunks);
	return c->nchunks == txn->nchunks;
}

WeirChunkCursor *
weir_log_chunks_begin(Relation rel, Snapshot snapshot, const WeirTxn *txn)
{
	WeirChunkCursor *c = palloc0(sizeof(WeirChunkCursor));

	c->rel = rel;
	c->snapshot = snapshot;
	if (!find_chunks(c, txn))
		ereport(ERROR, (errcode(ERRCODE_DATA_CORRUPTED),
						errmsg("log of stream \"%s\" is damaged",
							   RelationGetRelationName(rel)),
						errdetail("Transaction " UINT64_FORMAT
								  " has %d chunks, its record says %u.",
								  U64FromFullTransactionId(txn->xid),
								  c->nchunks, txn->nchunks)));
	return c;
}

char *
weir_log_chunks_next(WeirChunkCursor *c, Size *len)
{
	char *image;

	if (c->next >= c->nchunks)
		return NULL;
	CHECK_FOR_INTERRUPTS();
	Ensure(weir_log_fetch(c->rel, c->snapshot, &c->chunks[c->next].tid, &image,
						  len),
		   "a chunk that was visible is gone");
	c->next++;
	return image;
}

void
weir_log_chunks_end(WeirChunkCursor *c)
{
	if (c->chunks)
		pfree(c->chunks);
	pfree(c);
}

bool
weir_log_txn_visible(Relation rel, Snapshot snapshot, const WeirTxn *txn)
{
	WeirChunkCursor c;
	bool found;

	memset(&c, 0, sizeof(c));
	c.rel = rel;
	c.snapshot = snapshot;
	found = find_chunks(&c, txn);
	if (c.chunks)
		pfree(c.chunks);
	return found;
}

/* --------------------------------------------------------------- reader */

typedef struct PendingTxn
{
	WeirTxn txn;
	TimestampTz published_at;
} PendingTxn;

struct WeirLogReader
{
	Oid stream;
	MemoryContext cxt;
	Snapshot snapshot;		/* NULL: follows the log */
	WeirNumber done_before; /* everything below has been yielded */
	WeirNumber horizon;
	WeirNumber limit;		/* transactions from here on were not all kept:
								 * scan before yielding them */
	WeirNumber scanned_max; /* highest number of the last scan: the ring may
								 * bring it again */
	uint64 cursor;			/* next ring entry to look at */
	bool need_scan;
	RelFileNumber filenumber; /* of the last poll */
	PendingTxn *pending;	  /* binary heap by number, xid */
	int npending;
	int space;
};

WeirLogReader *
weir_log_reader_create(Oid stream, WeirPosition after, MemoryContext cxt)
{
	WeirLogReader *r = MemoryContextAllocZero(cxt, sizeof(WeirLogReader));

	r->stream = stream;
	r->cxt = cxt;
	r->done_before = after + 1;
	r->horizon = r->done_before;
	r->limit = PG_UINT64_MAX;
	r->need_scan = true;
	return r;
}

WeirLogReader *
weir_log_reader_create_at(Oid stream, WeirPosition after, Snapshot snapshot,
						  MemoryContext cxt)
{
	WeirLogReader *r = weir_log_reader_create(stream, after, cxt);

	r->snapshot = snapshot;
	return r;
}

Snapshot
weir_log_reader_snapshot(const WeirLogReader *r)
{
	return r->snapshot;
}

void
weir_log_reader_free(WeirLogReader *reader)
{
	if (reader->pending)
		pfree(reader->pending);
	pfree(reader);
}

static int
compare_pending(const void *a, const void *b)
{
	const WeirTxn *x = &((const PendingTxn *) a)->txn;
	const WeirTxn *y = &((const PendingTxn *) b)->txn;
	uint64 xx = U64FromFullTransactionId(x->xid);
	uint64 yx = U64FromFullTransactionId(y->xid);

	if (x->number != y->number)
		return x->number < y->number ? -1 : 1;
	return (xx > yx) - (xx < yx);
}

static void
sift_up(WeirLogReader *r, int i)
{
	PendingTxn moving = r->pending[i];

	while (i > 0)
	{
		int parent = (i - 1) / 2;

		if (compare_pending(&r->pending[parent], &moving) <= 0)
			break;
		r->pending[i] = r->pending[parent];
		i = parent;
	}
	r->pending[i] = moving;
}

static void
sift_down(WeirLogReader *r, int i)
{
	PendingTxn moving = r->pending[i];

	for (;;)
	{
		int child = 2 * i + 1;

		if (child >= r->npending)
			break;
		if (child + 1 < r->npending &&
			compare_pending(&r->pending[child + 1], &r->pending[child]) < 0)
			child++;
		if (compare_pending(&moving, &r->pending[child]) <= 0)
			break;
		r->pending[i] = r->pending[child];
		i = child;
	}
	r->pending[i] = moving;
}

static void
add_pending(WeirLogReader *r, const WeirTxn *txn, TimestampTz published_at)
{
	if (txn->number < r->done_before || txn->number >= r->limit)
		return;
	if (r->npending == MAX_PENDING)
	{
		/* keep the lower half; a sorted array is a heap */
		qsort(r->pending, r->npending, sizeof(PendingTxn), compare_pending);
		r->npending = MAX_PENDING / 2;
		r->limit = r->pending[r->npending].txn.number;
		/* never half of those that share a number */
		while (r->npending > 0 &&
			   r->pending[r->npending - 1].txn.number >= r->limit)
			r->npending--;
		if (txn->number >= r->limit)
			return;
	}
	if (r->npending == r->space)
	{
		r->space = r->space ? r->space * 2 : 64;
		if (r->pending == NULL)
			r->pending =
				MemoryContextAlloc(r->cxt, r->space * sizeof(PendingTxn));
		else
			r->pending =
				repalloc_huge(r->pending, r->space * sizeof(PendingTxn));
	}
	r->pending[r->npending].txn = *txn;
	r->pending[r->npending].published_at = published_at;
	r->npending++;
	sift_up(r, r->npending - 1);
}

static void
reader_collect(void *arg, const WeirTxn *txn)
{
	WeirLogReader *r = arg;

	r->scanned_max = Max(r->scanned_max, txn->number);
	add_pending(r, txn, 0);
}

/* Of one with a snapshot. */
static void
reader_collect_all(void *arg, const WeirTxn *txn)
{
	WeirTxn last = *txn;

	if (txn->number == WEIR_NO_NUMBER)
	{
		last.number = WEIR_UNNUMBERED;
		last.arrival = weir_now();
	}
	add_pending(arg, &last, 0);
}

/* The ring may bring what a scan has found already. */
static bool
already_pending(WeirLogReader *r, const WeirTxn *txn)
{
	if (txn->number > r->scanned_max)
		return false;
	for (int i = 0; i < r->npending; i++)
		if (r->pending[i].txn.number == txn->number &&
			FullTransactionIdEquals(r->pending[i].txn.xid, txn->xid))
			return true;
	return false;
}

/*
 * Take what the ring holds between our cursor and head, which was read together
 * with the horizon.
 */
static void
read_ring(WeirLogReader *r, uint64 head)
{
	WeirRingEntry batch[RING_BATCH];

	while (r->cursor < head && !r->need_scan)
	{
		int n = 0;

		LWLockAcquire(&weir_shared->order_lock, LW_SHARED);
		if (weir_shared->ring_head - r->cursor > WEIR_RING_SIZE)
			r->need_scan = true;
		while (r->cursor < head && n < RING_BATCH && !r->need_scan)
		{
			const WeirRingEntry *e =
				&weir_shared->ring[r->cursor % WEIR_RING_SIZE];

			if (e->stream == r->stream && e->db == MyDatabaseId)
				batch[n++] = *e;
			r->cursor++;
		}
		LWLockRelease(&weir_shared->order_lock);

		for (int i = 0; i < n; i++)
		{
			/* written into a file we do not know: what it holds, a scan says */
			if (batch[i].filenumber != r->filenumber)
				r->need_scan = true;
			else if (!already_pending(r, &batch[i].txn))
				add_pending(r, &batch[i].txn, batch[i].published_at);
		}
	}
}

/* The log, but for runs that the reader is beyond. */
static void
read_log(WeirLogReader *r, Relation rel, Snapshot snapshot,
		 CollectCallback callback)
{
	WeirRuns *runs = weir_runs_load(rel);
	Collect collect = {.rel = rel,
					   .snapshot = snapshot,
					   .from = r->snapshot != NULL ? WEIR_NO_NUMBER
												   : r->done_before,
					   .strict = true,
					   .runs = runs,
					   .callback = callback,
					   .arg = r};

	for (int i = 0; i < runs->n; i++)
		runs->runs[i].skip = runs->runs[i].max_number < r->done_before;
	collect_transactions(&collect);
	weir_runs_free(runs);
}

WeirNumber
weir_log_reader_poll(WeirLogReader *r, Relation rel)
{
	uint64 head;

	if (r->snapshot != NULL)
	{
		if (r->need_scan || (r->npending == 0 && r->limit != PG_UINT64_MAX))
		{
			r->npending = 0;
			r->limit = PG_UINT64_MAX;
			read_log(r, rel, r->snapshot, reader_collect_all);
			r->need_scan = false;
		}
		r->horizon = PG_UINT64_MAX;
		return r->limit;
	}
	if (r->filenumber != weir_rel_number(rel))
	{
		r->filenumber = weir_rel_number(rel);
		r->need_scan = true;
	}
	r->horizon = weir_order_horizon(&head);
	if (!r->need_scan)
		read_ring(r, head);
	if (!r->need_scan && r->horizon > r->limit &&
		(r->npending == 0 || r->pending[0].txn.number >= r->limit))
		r->need_scan = true;
	if (r->need_scan)
	{
		Snapshot snapshot;

		weir_debug_point("reader-scan");

		/*
		 * The horizon again: what was below it is visible to a snapshot taken
		 * now.  Whatever else the snapshot shows is complete too, and may come
		 * once more through the ring (already_pending).
		 */
		r->npending = 0;
		r->limit = PG_UINT64_MAX;
		r->scanned_max = 0;
		r->horizon = weir_order_horizon(&head);
		snapshot = RegisterSnapshot(GetLatestSnapshot());
		read_log(r, rel, snapshot, reader_collect);
		UnregisterSnapshot(snapshot);
		r->cursor = head;
		r->need_scan = false;
	}
	return Min(r->horizon, r->limit);
}

bool
weir_log_reader_pending(WeirLogReader *r)
{
	uint64 head;

	if (r->need_scan)
		return true;
	r->horizon = weir_order_horizon(&head);
	read_ring(r, head);
	if (r->need_scan || r->horizon > r->limit)
		return true;
	return r->npending > 0 && r->pending[0].txn.number < r->horizon;
}

bool
weir_log_reader_waits(WeirLogReader *r)
{
	return !r->need_scan && r->npending > 0 &&
		   r->pending[0].txn.number >= r->horizon;
}

bool
weir_log_reader_peek(WeirLogReader *r, WeirTxn *txn, TimestampTz *published_at)
{
	if (r->need_scan || r->npending == 0 ||
		r->pending[0].txn.number >= Min(r->horizon, r->limit))
		return false;
	*txn = r->pending[0].txn;
	if (published_at)
		*published_at = r->pending[0].published_at;
	return true;
}

void
weir_log_reader_advance(WeirLogReader *r)
{
	WeirNumber number;

	Assert(r->npending > 0);
	number = r->pending[0].txn.number;
	r->npending--;
	if (r->npending > 0)
	{
		r->pending[0] = r->pending[r->npending];
		sift_down(r, 0);
	}
	if (r->npending == 0 || r->pending[0].txn.number != number)
		r->done_before = number + 1;
}

WeirNumber
weir_log_reader_done_before(WeirLogReader *r)
{
	WeirNumber reached = Min(r->horizon, r->limit);

	if (!r->need_scan)
	{
		if (r->npending > 0)
			reached = Min(reached, r->pending[0].txn.number);
		r->done_before = Max(r->done_before, reached);
	}
	return r->done_before;
}

/* ------------------------------------------------------------ watermark */

typedef struct MaxWatermark
{
	WeirWatermark *mark;
	WeirNumber number; /* of the record it is from */
} MaxWatermark;

static void
max_watermark(void *arg, const WeirTxn *txn)
{
	MaxWatermark *m = arg;

	if (txn->number == WEIR_NO_NUMBER || txn->watermark < m->mark->watermark ||
		(txn->watermark == m->mark->watermark && txn->number > m->number))
		return;
	m->mark->watermark = txn->watermark;
	m->mark->arrival = txn->arrival;
	m->mark->kind = txn->kind;
	m->number = txn->number;
}

void
weir_log_watermark(Relation rel, Snapshot snapshot, WeirWatermark *mark)
{
	MaxWatermark m = {mark, WEIR_NO_NUMBER};
	WeirRuns *runs = weir_runs_load(rel);
	Collect collect = {.rel = rel,
					   .snapshot = snapshot,
					   .from = 1,
					   .strict = true,
					   .runs = runs,
					   .callback = max_watermark,
					   .arg = &m};

	memset(mark, 0, sizeof(*mark));
	mark->watermark = WEIR_NO_TIME;
	for (int i = 0; i < runs->n; i++)
	{
		WeirRun *run = &runs->runs[i];
		WeirTxn highest = {.number = run->watermark_number,
						   .watermark = run->watermark,
						   .arrival = run->watermark_arrival,
						   .kind = run->watermark_kind};

		run->skip = true;
		max_watermark(&m, &highest);
	}
	collect_transactions(&collect);
	weir_runs_free(runs);
}

uint64
weir_log_count(Relation rel, Snapshot snapshot)
{
	WeirRuns *runs = weir_runs_load(rel);
	WeirLogScan *scan =
		weir_log_scan_begin(rel, snapshot, 0, InvalidBlockNumber);
	WeirLogHeader h;
	uint64 count = 0;

	for (int i = 0; i < runs->n; i++)
	{
		runs->runs[i].skip = true;
		count += runs->runs[i].nrows;
	}
	pass_over(scan, runs);
	while (weir_log_scan_next_header(scan, &h))
	{
		CHECK_FOR_INTERRUPTS();
		count += h.chunk.nrows;
	}
	weir_log_scan_end(scan);
	weir_runs_free(runs);
	return count;
}

/* ------------------------------------------------ prepared transactions */

/*
 * Object locks on a relation's pg_class row are used by nobody else.  Released
 * at the end of the transaction.
 */
bool
weir_log_lock_adoption(Oid stream, bool collecting)
{
	LOCKTAG tag;

	if (collecting)
	{
		LockDatabaseObject(RelationRelationId, stream, 1, ExclusiveLock);
		return true;
	}
	SET_LOCKTAG_OBJECT(tag, MyDatabaseId, RelationRelationId, stream, 1);
	return LockAcquire(&tag, ShareLock, false, true) != LOCKACQUIRE_NOT_AVAIL;
}

bool
weir_log_lock_history(Oid stream, bool trimming)
{
	LOCKTAG tag;

	if (!trimming)
	{
		LockDatabaseObject(RelationRelationId, stream, 2, ShareLock);
		return true;
	}
	SET_LOCKTAG_OBJECT(tag, MyDatabaseId, RelationRelationId, stream, 2);
	return LockAcquire(&tag, ExclusiveLock, false, true) !=
		   LOCKACQUIRE_NOT_AVAIL;
}

bool
weir_log_is_being_trimmed(Oid stream)
{
	LOCKTAG tag;

	SET_LOCKTAG_OBJECT(tag, MyDatabaseId, RelationRelationId, stream, 2);
	return LockAcquire(&tag, ShareLock, false, true) == LOCKACQUIRE_NOT_AVAIL;
}

typedef struct CollectPrepared
{
	Oid stream;
	RelFileNumber filenumber;
	bool full;
} CollectPrepared;

bool
weir_log_add_prepared(Oid stream, RelFileNumber filenumber, const WeirTxn *txn)
{
	int n;
	WeirPrepared *prepared = weir_shmem_prepared(&n);
	WeirPrepared *unused = NULL;
	bool found = false;

	LWLockAcquire(&weir_shared->directory_lock, LW_EXCLUSIVE);
	for (int i = 0; i < n; i++)
	{
		WeirPrepared *p = &prepared[i];

		if (!p->in_use)
			unused = unused ? unused : p;
		else if (p->db == MyDatabaseId && p->stream == stream &&
				 FullTransactionIdEquals(p->xid, txn->xid))
			found = true;
	}
	if (!found && unused)
	{
		unused->adopting = false;
		unused->db = MyDatabaseId;
		unused->stream = stream;
		unused->xid = txn->xid;
		unused->filenumber = filenumber;
		unused->txn = *txn;
		unused->in_use = true;
		weir_shared->nprepared++;
		found = true;
	}
	LWLockRelease(&weir_shared->directory_lock);
	return found;
}

void
weir_log_remove_prepared(Oid stream, FullTransactionId xid)
{
	int n;
	WeirPrepared *prepared = weir_shmem_prepared(&n);

	LWLockAcquire(&weir_shared->directory_lock, LW_EXCLUSIVE);
	for (int i = 0; i < n; i++)
	{
		WeirPrepared *p = &prepared[i];

		if (p->in_use && p->db == MyDatabaseId && p->stream == stream &&
			FullTransactionIdEquals(p->xid, xid))
		{
			p->in_use = false;
			weir_shared->nprepared--;
		}
	}
	LWLockRelease(&weir_shared->directory_lock);
}

bool
weir_log_has_unnumbered(Oid stream)
{
	int n;
	WeirPrepared *prepared = weir_shmem_prepared(&n);

	for (int i = 0; i < n && weir_shared->nprepared > 0; i++)
	{
		WeirPrepared p;

		LWLockAcquire(&weir_shared->directory_lock, LW_SHARED);
		p = prepared[i];
		LWLockRelease(&weir_shared->directory_lock);
		/* one that was rolled back may not have been forgotten yet */
		if (p.in_use && p.db == MyDatabaseId && p.stream == stream &&
			!TransactionIdIsInProgress(XidFromFullTransactionId(p.xid)) &&
			TransactionIdDidCommit(XidFromFullTransactionId(p.xid)))
			return true;
	}
	return false;
}

static void
add_collected_prepared(void *arg, const WeirTxn *txn)
{
	CollectPrepared *c = arg;

	if (txn->number == WEIR_NO_NUMBER &&
		!weir_log_add_prepared(c->stream, c->filenumber, txn))
		c->full = true;
}

/*
 * A dirty snapshot shows the chunks of transactions that are still prepared; a
 * running one has no record yet, or one with a number.  The lock keeps adopters
 * out, so that a record read before its ADOPT record was written is not taken
 * for one that has none.
 */
void
weir_log_collect_prepared(Relation rel)
{
	CollectPrepared c;
	SnapshotData dirty;
	WeirRuns *runs;
	Collect collect = {.rel = rel,
					   .snapshot = &dirty,
					   .from = WEIR_NO_NUMBER,
					   .callback = add_collected_prepared,
					   .arg = &c};

	c.stream = RelationGetRelid(rel);
	c.filenumber = weir_rel_number(rel);
	c.full = false;
	weir_log_lock_adoption(c.stream, true);
	InitDirtySnapshot(dirty);
	runs = weir_runs_load(rel);
	for (int i = 0; i < runs->n; i++)
		runs->runs[i].skip = true; /* no record of such a transaction in it */
	collect.runs = runs;
	collect_transactions(&collect);
	weir_runs_free(runs);
	if (c.full)
		ereport(WARNING,
				(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
				 errmsg("too many prepared transactions wrote to streams"),
				 errdetail("Their events count once others are finished."),
				 errhint("Increase max_prepared_transactions.")));
}

/* ----------------------------------------------------------------- trim */

typedef struct TrimTxn
{
	WeirNumber number;
	TimestampTz arrival;
	TimestampTz watermark;
	uint64 nbytes;
	uint64 nrows;
	uint32 nchunks;
	FullTransactionId xid;
} TrimTxn;

typedef struct TrimState
{
	WeirPosition up_to;
	TimestampTz older_than;
	uint64 total;
	TimestampTz kept; /* W of transactions that are not in txns */
	WeirNumber limit; /* who has it, and those after, stay */
	TrimTxn *txns;
	Size n;
	Size space;
} TrimState;

/* A transaction to delete. */
typedef struct Doomed
{
	FullTransactionId xid; /* hash key */
	uint32 left;		   /* of its chunks */
} Doomed;

static void
trim_add(TrimState *t, const TrimTxn *txn)
{
	if (t->n == t->space)
	{
		t->space = t->space ? t->space * 2 : 1024;
		t->txns = t->txns ? repalloc_huge(t->txns, t->space * sizeof(TrimTxn))
						  : palloc(t->space * sizeof(TrimTxn));
	}
	t->txns[t->n++] = *txn;
}

static void
trim_collect(void *arg, const WeirTxn *txn)
{
	TrimState *t = arg;
	TrimTxn add;

	if (txn->number == WEIR_NO_NUMBER || txn->number > t->up_to ||
		txn->arrival >= t->older_than)
	{
		if (txn->number != WEIR_NO_NUMBER)
		{
			t->kept = Max(t->kept, txn->watermark);
			t->limit = Min(t->limit, txn->number);
		}
		return;
	}
	add.number = txn->number;
	add.arrival = txn->arrival;
	add.watermark = txn->watermark;
	add.nbytes = txn->nbytes;
	add.nrows = txn->nrows;
	add.nchunks = txn->nchunks;
	add.xid = txn->xid;
	trim_add(t, &add);
}

static int
compare_trim(const void *a, const void *b)
{
	WeirNumber x = ((const TrimTxn *) a)->number;
	WeirNumber y = ((const TrimTxn *) b)->number;

	return (x > y) - (x < y);
}

/*
 * Collect what may go, and sort it.  Runs marked to be skipped have none of it;
 * their bytes and their W count.
 */
static void
trim_read(TrimState *t, Relation rel, Snapshot snapshot, const WeirRuns *runs)
{
	Collect collect = {.rel = rel,
					   .snapshot = snapshot,
					   .from = WEIR_NO_NUMBER,
					   .strict = true,
					   .runs = runs,
					   .callback = trim_collect,
					   .arg = t};

	collect_transactions(&collect);
	t->total = collect.nbytes;
	for (int i = 0; i < runs->n; i++)
		if (runs->runs[i].skip)
		{
			t->total += runs->runs[i].nbytes;
			t->kept = Max(t->kept, runs->runs[i].watermark);
		}
	if (t->n > 1)
		qsort(t->txns, t->n, sizeof(TrimTxn), compare_trim);
}

static int
compare_run_numbers(const void *a, const void *b)
{
	WeirNumber x = (*(WeirRun *const *) a)->min_number;
	WeirNumber y = (*(WeirRun *const *) b)->min_number;

	return (x > y) - (x < y);
}

/*
 * Skip runs that have no record of a transaction that may go.  What goes goes by
 * number: of the others, no more than it takes, those with the lowest numbers.
 * Returns the number below which all records are in what is not skipped, or are
 * old enough.
 */
static WeirNumber
choose_runs_to_trim(Relation rel, WeirRuns *runs, WeirPosition up_to,
					TimestampTz older_than, uint64 keep_bytes)
{
	WeirRun **by_number = palloc(Max(runs->n, 1) * sizeof(WeirRun *));
	uint64 most = (uint64) RelationGetNumberOfBlocks(rel) * BLCKSZ;
	uint64 taken = 0;
	WeirNumber limit = PG_UINT64_MAX;
	int n = 0;

	for (int i = 0; i < runs->n; i++)
	{
		WeirRun *run = &runs->runs[i];

		most = most - (uint64) run->blocks * BLCKSZ + run->nbytes;
		run->skip = run->min_arrival >= older_than || run->min_number > up_to;
		if (!run->skip)
			by_number[n++] = run;
		else
			limit = Min(limit, run->min_number);
	}
	if (keep_bytes > 0)
	{
		qsort(by_number, n, sizeof(WeirRun *), compare_run_numbers);
		for (int i = 0; i < n; i++)
		{
			if (most > keep_bytes && taken < most - keep_bytes)
				taken += by_number[i]->nbytes;
			else
			{
				limit = Min(limit, by_number[i]->min_number);
				by_number[i]->skip = true;
			}
		}
	}
	pfree(by_number);
	return limit;
}

/* The largest event time in a chunk, for those who must not miss any. */
static TimestampTz
newest_of(const WeirLogHeader *h)
{
	if (h->chunk.nrows == 0)
		return WEIR_NO_TIME;
	return h->chunk.flags & WEIR_CHUNK_HAS_TIME ? h->max_time : PG_INT64_MAX;
}

/* False: somebody else has deleted it. */
static bool
delete_tuple(Relation rel, ItemPointer tid, CommandId cid)
{
	Shadow shadow;
	TM_FailureData failure;

	return heap_delete(make_shadow(&shadow, rel), tid, cid, InvalidSnapshot,
					   true, &failure, false) == TM_Ok;
}

/*
 * Delete everything of these transactions, an ADOPT record with the one it
 * numbers.  Returns how many rows that were; *newest goes up to their time.
 */
static uint64
delete_doomed(Relation rel, Snapshot snapshot, WeirRuns *runs, HTAB *doomed,
			  TimestampTz *newest)
{
	CommandId cid = GetCurrentCommandId(true);
	WeirLogScan *scan =
		weir_log_scan_begin(rel, snapshot, 0, InvalidBlockNumber);
	WeirLogHeader h;
	uint64 nrows = 0;
	HASH_SEQ_STATUS seq;
	Doomed *d;

	for (int i = 0; i < runs->n; i++)
	{
		WeirRun *run = &runs->runs[i];

		for (int j = 0; run->skip && j < run->nopen; j++)
			run->skip =
				hash_search(doomed, &run->open[j], HASH_FIND, NULL) == NULL;
	}
	scan->with_pieces = true;
	pass_over(scan, runs);
	while (weir_log_scan_next_header(scan, &h))
	{
		bool adopts = h.has_record && h.record.kind == WEIR_RECORD_ADOPT;

		CHECK_FOR_INTERRUPTS();
		d = hash_search(doomed, adopts ? &h.record.adopts : &h.chunk.xid,
						HASH_FIND, NULL);
		if (d == NULL)
			continue;
		if (!delete_tuple(rel, &h.tid, cid))
			ereport(ERROR,
					(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
					 errmsg("log of stream \"%s\" was trimmed concurrently",
							RelationGetRelationName(rel))));
		nrows += h.chunk.nrows;
		*newest = Max(*newest, newest_of(&h));
		if (!adopts && !(h.chunk.flags & WEIR_CHUNK_PIECE))
			d->left--;
	}
	weir_log_scan_end(scan);
	hash_seq_init(&seq, doomed);
	while ((d = hash_seq_search(&seq)) != NULL)
		Ensure(d->left == 0,
			   "transaction " UINT64_FORMAT " was trimmed in part",
			   U64FromFullTransactionId(d->xid));
	return nrows;
}

/*
 * Deletes in the order of numbers, as long as more than keep_bytes would
 * remain, and up to the first that must stay: what is recorded of it is the
 * highest number, so nobody below that may be left, or yet come.  Arrivals do
 * not go back, but after a restart with the clock put back.
 */
void
weir_log_trim(Relation rel, WeirPosition up_to, TimestampTz older_than,
			  uint64 keep_bytes, WeirTrimmed *trimmed)
{
	MemoryContext cxt = AllocSetContextCreate(
		CurrentMemoryContext, "weir log trim", ALLOCSET_DEFAULT_SIZES);
	MemoryContext old = MemoryContextSwitchTo(cxt);
	uint64 ring_head;
	WeirNumber horizon = weir_order_horizon(&ring_head);
	Snapshot snapshot = RegisterSnapshot(GetLatestSnapshot());
	TrimState trim = {.up_to = Min(up_to, horizon - 1),
					  .older_than = older_than,
					  .kept = WEIR_NO_TIME};
	WeirRuns *runs = weir_runs_load(rel);
	TimestampTz all;
	HTAB *doomed;
	uint64 freed = 0;

	trim.limit =
		choose_runs_to_trim(rel, runs, trim.up_to, older_than, keep_bytes);
	trim_read(&trim, rel, snapshot, runs);
	/* those beyond may not be all that have such numbers: another time */
	while (trim.n > 0 && trim.txns[trim.n - 1].number >= trim.limit)
	{
		trim.n--;
		trim.kept = Max(trim.kept, trim.txns[trim.n].watermark);
	}

	doomed = make_xid_hash("weir doomed", sizeof(Doomed), cxt);
	all = trim.kept;
	for (Size i = 0; i < trim.n; i++)
		all = Max(all, trim.txns[i].watermark);
	for (Size i = 0; i < trim.n; i++)
	{
		TrimTxn *txn = &trim.txns[i];
		bool full = trim.total - freed - txn->nbytes < keep_bytes;
		Doomed *d;

		/* an empty record that holds W may as well stay */
		if (full ||
			(txn->nrows == 0 && txn->watermark == all && trim.kept < all))
		{
			trim.kept = Max(trim.kept, txn->watermark);
			if (!full)
				continue;
			for (i++; i < trim.n; i++)
				trim.kept = Max(trim.kept, trim.txns[i].watermark);
			break;
		}
		d = hash_search(doomed, &txn->xid, HASH_ENTER, NULL);
		d->left = txn->nchunks;
		freed += txn->nbytes;
		if (txn->nrows > 0)
			trimmed->last = Max(trimmed->last, txn->number);
	}
	if (trim.kept < all)
		trimmed->watermark = Max(trimmed->watermark, all);
	trimmed->bytes += freed;

	if (hash_get_num_entries(doomed) > 0)
	{
		uint64 nrows =
			delete_doomed(rel, snapshot, runs, doomed, &trimmed->max_time);

		/* one by hand, so that there is a place for the others */
		if (nrows > 0 && pgstat_should_count_relation(rel))
		{
			pgstat_count_heap_delete(rel);
			rel->pgstat_info->trans->tuples_deleted += nrows - 1;
		}
	}
	UnregisterSnapshot(snapshot);
	MemoryContextSwitchTo(old);
	MemoryContextDelete(cxt);
}

TimestampTz
weir_log_max_time(Relation rel)
{
	Snapshot snapshot = RegisterSnapshot(GetLatestSnapshot());
	WeirRuns *runs = weir_runs_load(rel);
	WeirLogScan *scan =
		weir_log_scan_begin(rel, snapshot, 0, InvalidBlockNumber);
	TimestampTz newest = WEIR_NO_TIME;
	WeirLogHeader h;

	for (int i = 0; i < runs->n; i++)
	{
		WeirRun *run = &runs->runs[i];

		run->skip = true;
		if (run->nrows > 0)
			newest = Max(newest, run->max_time);
	}
	pass_over(scan, runs);
	while (weir_log_scan_next_header(scan, &h))
	{
		CHECK_FOR_INTERRUPTS();
		newest = Max(newest, newest_of(&h));
	}
	weir_log_scan_end(scan);
	weir_runs_free(runs);
	UnregisterSnapshot(snapshot);
	return newest;
}

/*
 * A run whose transactions are all on one side of whatever is asked need not be
 * read: it is as if it were one transaction.  One in the midst of a long
 * transaction has no record: what it counts for, the run with the record says,
 * and both are read.
 */
static void
choose_runs_to_hold(TrimState *t, WeirRuns *runs, TimestampTz older_than,
					const WeirPosition *after, int n)
{
	HTAB *lengthy = make_xid_hash("weir lengthy", sizeof(FullTransactionId),
								  CurrentMemoryContext);
	WeirPosition lowest = PG_UINT64_MAX;
	WeirPosition highest = WEIR_NO_NUMBER;

	for (int i = 0; i < n; i++)
	{
		lowest = Min(lowest, after[i]);
		highest = Max(highest, after[i]);
	}
	for (int i = 0; i < runs->n; i++)
	{
		WeirRun *run = &runs->runs[i];

		run->skip =
			run->max_number <= t->up_to &&
			(run->max_number <= lowest ||
			 (run->min_number > highest && run->min_number <= run->max_number &&
			  (run->max_arrival < older_than ||
			   run->min_arrival >= older_than)));
		for (int j = 0;
			 !run->skip && run->min_number > run->max_number && j < run->nopen;
			 j++)
			hash_search(lengthy, &run->open[j], HASH_ENTER, NULL);
	}
	for (int i = 0; i < runs->n; i++)
	{
		WeirRun *run = &runs->runs[i];
		TrimTxn as_one = {.number = Min(run->min_number, run->max_number),
						  .arrival = run->max_arrival,
						  .nbytes = run->nbytes};

		for (int j = 0; run->skip && j < run->nopen; j++)
			run->skip =
				hash_search(lengthy, &run->open[j], HASH_FIND, NULL) == NULL;
		if (run->skip)
			trim_add(t, &as_one);
	}
	hash_destroy(lengthy);
}

void
weir_log_held(Relation rel, WeirPosition up_to, TimestampTz older_than,
			  uint64 keep_bytes, const WeirPosition *after, uint64 *held, int n)
{
	MemoryContext cxt = AllocSetContextCreate(
		CurrentMemoryContext, "weir log held", ALLOCSET_DEFAULT_SIZES);
	MemoryContext old = MemoryContextSwitchTo(cxt);
	Snapshot snapshot = RegisterSnapshot(GetLatestSnapshot());
	TrimState trim = {
		.up_to = up_to, .older_than = DT_NOEND, .kept = WEIR_NO_TIME};
	WeirRuns *runs = weir_runs_load(rel);
	uint64 remain;
	bool full = keep_bytes == PG_INT64_MAX;

	memset(held, 0, n * sizeof(uint64));
	choose_runs_to_hold(&trim, runs, older_than, after, n);
	trim_read(&trim, rel, snapshot, runs);
	remain = trim.total;
	for (Size i = 0; i < trim.n; i++)
	{
		const TrimTxn *txn = &trim.txns[i];

		/* what a run that stands for itself has of one that is read counts
		 * with both */
		full = full || remain < txn->nbytes + keep_bytes;
		if (full && txn->arrival >= older_than)
			continue;
		remain -= Min(remain, txn->nbytes);
		for (int j = 0; j < n; j++)
			if (txn->number > after[j])
				held[j] += txn->nbytes;
	}
	UnregisterSnapshot(snapshot);
	MemoryContextSwitchTo(old);
	MemoryContextDelete(cxt);
}

/* ------------------------------------------------------- summaries of runs */

/* What a run has of a transaction. */
typedef struct RunTxn
{
	FullTransactionId xid; /* hash key */
	uint32 nchunks;
	uint32 all; /* what its record says, if it is here, else 0 */
} RunTxn;

static void
add_to_run(WeirRun *run, HTAB *txns, const WeirLogHeader *h)
{
	const WeirRecord *record = &h->record;
	RunTxn *t;
	bool found;

	t = hash_search(txns, &h->chunk.xid, HASH_ENTER, &found);
	if (!found)
	{
		t->nchunks = 0;
		t->all = 0;
	}
	if (h->chunk.flags & WEIR_CHUNK_PIECE)
		return;
	t->nchunks++;
	run->nbytes += h->len;
	if (h->chunk.nrows > 0)
	{
		bool timed = (h->chunk.flags & WEIR_CHUNK_HAS_TIME) != 0;

		run->nchunks++;
		run->nrows += h->chunk.nrows;
		run->min_time = timed ? Min(run->min_time, h->min_time) : PG_INT64_MIN;
		run->max_time = timed ? Max(run->max_time, h->max_time) : PG_INT64_MAX;
	}
	if (!h->has_record)
		return;
	if (record->number == WEIR_NO_NUMBER || record->kind == WEIR_RECORD_ADOPT)
		run->opaque = true;
	t->all = record->nchunks;
	run->min_number = Min(run->min_number, record->number);
	run->min_arrival = Min(run->min_arrival, record->arrival);
	run->max_arrival = Max(run->max_arrival, record->arrival);
	if (record->watermark > run->watermark ||
		(record->watermark == run->watermark &&
		 record->number < run->watermark_number))
	{
		run->watermark = record->watermark;
		run->watermark_number = record->number;
		run->watermark_arrival = record->arrival;
		run->watermark_kind = record->kind;
	}
}

static int
compare_xids(const void *a, const void *b)
{
	uint64 x = U64FromFullTransactionId(*(const FullTransactionId *) a);
	uint64 y = U64FromFullTransactionId(*(const FullTransactionId *) b);

	return (x > y) - (x < y);
}

static void
note_open(WeirRun *run, HTAB *txns)
{
	HASH_SEQ_STATUS seq;
	RunTxn *t;

	run->open = palloc(WEIR_RUN_MAX_OPEN * sizeof(FullTransactionId));
	run->nopen = 0;
	hash_seq_init(&seq, txns);
	while ((t = hash_seq_search(&seq)) != NULL)
	{
		if (t->all != 0 && t->nchunks == t->all)
			continue;
		if (run->nopen == WEIR_RUN_MAX_OPEN)
		{
			run->opaque = true;
			run->nopen = 0;
			hash_seq_term(&seq);
			break;
		}
		run->open[run->nopen++] = t->xid;
	}
	qsort(run->open, run->nopen, sizeof(FullTransactionId), compare_xids);
}

/* What is in the run, whoever asks: everybody sees all of it. */
static void
summarize_run(Relation rel, Snapshot snapshot, WeirRun *run)
{
	HTAB *txns =
		make_xid_hash("weir run", sizeof(RunTxn), CurrentMemoryContext);
	WeirLogScan *scan =
		weir_log_scan_begin(rel, snapshot, run->first, run->blocks);
	WeirLogHeader h;

	run->min_number = PG_INT64_MAX;
	run->min_arrival = DT_NOEND;
	run->max_arrival = DT_NOBEGIN;
	run->min_time = PG_INT64_MAX;
	run->max_time = PG_INT64_MIN;
	run->watermark = WEIR_NO_TIME;
	run->watermark_number = PG_INT64_MAX;
	scan->with_pieces = true;
	while (weir_log_scan_next_header(scan, &h))
	{
		CHECK_FOR_INTERRUPTS();
		add_to_run(run, txns, &h);
	}
	weir_log_scan_end(scan);
	note_open(run, txns);
	hash_destroy(txns);

	/* everybody who has written here has committed, and got his number before;
	 * but for those whose records make a run opaque */
	run->max_number = weir_order_highest();
}

int
weir_log_summarize(Relation rel, int max_ms, bool *more)
{
	MemoryContext cxt = AllocSetContextCreate(
		CurrentMemoryContext, "weir log summarize", ALLOCSET_DEFAULT_SIZES);
	MemoryContext old = MemoryContextSwitchTo(cxt);
	TimestampTz until = TimestampTzPlusMilliseconds(weir_now(), max_ms);
	List *wanted = weir_runs_wanted(rel);
	int64 changing = -1; /* a page of the map that somebody writes to */
	int ntried = 0;
	int n = 0;
	ListCell *lc;

	*more = false;
	foreach(lc, wanted)
	{
		WeirRun *run = lfirst(lc);
		Snapshot snapshot;

		if (weir_runs_map_page(run) == changing || !weir_runs_look(rel, run))
			continue;
		if (max_ms > 0 && ntried > 0 && weir_now() >= until)
		{
			*more = true;
			break;
		}
		ntried++;
		snapshot = RegisterSnapshot(GetLatestSnapshot());
		summarize_run(rel, snapshot, run);
		UnregisterSnapshot(snapshot);
		/*
		 * While it was read, somebody may have written into it, or, in servers
		 * whose inserts give the map's page their LSN, near it.  There is no use
		 * in trying the runs beside it now.
		 */
		if (weir_runs_unchanged(rel, run))
		{
			weir_runs_put(rel, run);
			n++;
		}
		else
			changing = weir_runs_map_page(run);
	}
	MemoryContextSwitchTo(old);
	MemoryContextDelete(cxt);
	return n;
}

/* -------------------------------------------------------------- rewrite */

typedef struct RewriteSource
{
	Relation rel;
	Relation new_rel;
	Shadow shadow; /* of new_rel */
	RewriteState rewrite;
	int missing_natts;		 /* chunks of fewer columns must be widened */
	WeirChunkReader *reader; /* then */
	HeapTuple head;			 /* whose transactions a tuple made anew has */
	TransactionId oldest_xmin;
	double rows;
	double dead;
	double recently_dead;
} RewriteSource;

/* A private copy of a tuple, whoever sees it. */
static HeapTuple
copy_raw_tuple(Relation rel, ItemPointer tid)
{
	Buffer buffer = ReadBuffer(rel, ItemPointerGetBlockNumber(tid));
	Page page;
	ItemId item;
	HeapTupleData tup;
	HeapTuple copy;

	LockBuffer(buffer, BUFFER_LOCK_SHARE);
	page = BufferGetPage(buffer);
	Ensure(ItemPointerGetOffsetNumber(tid) <= PageGetMaxOffsetNumber(page),
		   "piece of a chunk is missing");
	item = PageGetItemId(page, ItemPointerGetOffsetNumber(tid));
	Ensure(ItemIdIsNormal(item), "piece of a chunk is missing");
	tup.t_data = (HeapTupleHeader) PageGetItem(page, item);
	tup.t_len = ItemIdGetLength(item);
	tup.t_tableOid = RelationGetRelid(rel);
	tup.t_self = *tid;
	copy = heap_copytuple(&tup);
	UnlockReleaseBuffer(buffer);
	return copy;
}

static ItemPointerData
rewrite_tuple(RewriteSource *src, HeapTuple old, HeapTuple copy)
{
	/* catalog access since the last tuple may have closed the file */
	src->shadow.rel.rd_smgr = RelationGetSmgr(src->new_rel);
	rewrite_heap_tuple(src->rewrite, old, copy);
	return copy->t_self;
}

static ItemPointerData
rewrite_new_tuple(void *arg, HeapTuple tup)
{
	RewriteSource *src = arg;

	return rewrite_tuple(src, src->head, tup);
}

/*
 * Core takes it that a rewrite makes the missing values of added columns real
 * and forgets them.
 */
static void
rewrite_widened(RewriteSource *src, HeapTuple head)
{
	Size len;
	const char *image = tuple_image(head, &len);
	Size whole_len;
	char *whole = palloc_extended(
		joined_length(RelationGetRelid(src->rel), image, len), MCXT_ALLOC_HUGE);
	Size new_len;
	char *widened;

	whole_len = joined_length(RelationGetRelid(src->rel), image, len);
	if (has_next(image))
		join_pieces(src->rel, SnapshotAny, image, len, whole);
	else
		memcpy(whole, image, len);
	widened = weir_chunk_widen(src->reader, whole, whole_len, &new_len);
	src->head = head;
	(void) store_image(RelationGetRelid(src->rel), widened, new_len,
					   rewrite_new_tuple, src);
}

static void
relink(HeapTuple copy, ItemPointerData next)
{
	Size len;
	const char *image = tuple_image(copy, &len);
	char *where;
	WeirPieceLink link;

	read_link(copy->t_tableOid, image, &link);
	link.next = next;
	where = (char *) copy->t_data + TUPLE_HOFF + weir_chunk_head_length(image);
	memcpy(where, &link, sizeof(link));
}

/* A head, and before it its pieces from the last to the first. */
static void
rewrite_chunk(RewriteSource *src, HeapTuple head)
{
	HeapTuple copy;
	Size len;
	const char *image = tuple_image(head, &len);
	WeirChunkHeader header;

	memcpy(&header, image, sizeof(header));
	src->rows += header.nrows;
	if (header.nrows > 0 && header.natts < src->missing_natts)
	{
		rewrite_widened(src, head);
		return;
	}
	copy = heap_copytuple(head);
	image = tuple_image(copy, &len);
	if (has_next(image))
	{
		ItemPointerData *tids = NULL;
		int n = 0;
		int space = 0;
		WeirPieceLink link;
		ItemPointerData next;
		bool more = true;

		read_link(RelationGetRelid(src->rel), image, &link);
		while (more)
		{
			HeapTuple piece;
			const char *p;

			CHECK_FOR_INTERRUPTS();
			if (n == space)
			{
				space = space ? space * 2 : 64;
				tids =
					tids ? repalloc_huge(tids, space * sizeof(ItemPointerData))
						 : palloc(space * sizeof(ItemPointerData));
			}
			tids[n++] = link.next;
			piece = copy_raw_tuple(src->rel, &link.next);
			p = tuple_image(piece, &len);
			Ensure(!is_head(p), "link leads to a chunk's head");
			more = has_next(p);
			if (more)
				read_link(RelationGetRelid(src->rel), p, &link);
			heap_freetuple(piece);
		}
		ItemPointerSetInvalid(&next);
		for (int i = n - 1; i >= 0; i--)
		{
			HeapTuple old = copy_raw_tuple(src->rel, &tids[i]);
			HeapTuple piece = heap_copytuple(old);

			if (i < n - 1)
				relink(piece, next);
			next = rewrite_tuple(src, old, piece);
			heap_freetuple(piece);
			heap_freetuple(old);
		}
		relink(copy, next);
		pfree(tids);
	}
	rewrite_tuple(src, head, copy);
	heap_freetuple(copy);
}

/* The last column that has a missing value; 0: none. */
static int
missing_natts(TupleDesc desc)
{
	for (int i = desc->natts; i > 0; i--)
		if (TupleDescAttr(desc, i - 1)->atthasmissing &&
			!TupleDescAttr(desc, i - 1)->attisdropped)
			return i;
	return 0;
}

/*
 * VACUUM FULL: every chunk that somebody may still see keeps header, xmin and
 * xmax.  Caller holds AccessExclusiveLock on old_rel; new_rel is its own.
 */
void
weir_log_rewrite(Relation old_rel, Relation new_rel, TransactionId oldest_xmin,
				 TransactionId freeze_xid, MultiXactId multi_cutoff,
				 double *rows, double *vacuumed, double *recently_dead)
{
	RewriteSource src;
	TableScanDesc scan;
	TupleTableSlot *slot;
	MemoryContext cxt;

	memset(&src, 0, sizeof(src));
	src.rel = old_rel;
	src.new_rel = new_rel;
	src.oldest_xmin = oldest_xmin;
	src.missing_natts = missing_natts(RelationGetDescr(old_rel));
	if (src.missing_natts > 0)
		src.reader = weir_chunk_reader_create(RelationGetDescr(old_rel), NULL);
	src.rewrite = begin_heap_rewrite(old_rel, make_shadow(&src.shadow, new_rel),
									 oldest_xmin, freeze_xid, multi_cutoff);
	cxt = AllocSetContextCreate(CurrentMemoryContext, "weir log rewrite",
								ALLOCSET_DEFAULT_SIZES);
	slot = MakeSingleTupleTableSlot(chunk_descriptor(), &TTSOpsBufferHeapTuple);
	scan = heap_beginscan(old_rel, SnapshotAny, 0, NULL, NULL,
						  SO_TYPE_SEQSCAN | SO_ALLOW_STRAT | SO_ALLOW_PAGEMODE);
	while (heap_getnextslot(scan, ForwardScanDirection, slot))
	{
		BufferHeapTupleTableSlot *bslot = (BufferHeapTupleTableSlot *) slot;
		HeapTuple tup = bslot->base.tuple;
		MemoryContext old;
		HTSV_Result state;
		Size len;
		const char *image;

		CHECK_FOR_INTERRUPTS();
		LockBuffer(bslot->buffer, BUFFER_LOCK_SHARE);
		state = HeapTupleSatisfiesVacuum(tup, oldest_xmin, bslot->buffer);
		LockBuffer(bslot->buffer, BUFFER_LOCK_UNLOCK);
		image = tuple_image(tup, &len);
		if (!is_head(image))
			continue; /* goes with its head */
		if (state == HEAPTUPLE_DEAD)
		{
			src.dead += ((const WeirChunkHeader *) image)->nrows;
			continue;
		}
		if (state == HEAPTUPLE_RECENTLY_DEAD)
			src.recently_dead += ((const WeirChunkHeader *) image)->nrows;

		old = MemoryContextSwitchTo(cxt);
		rewrite_chunk(&src, tup);
		MemoryContextSwitchTo(old);
		MemoryContextReset(cxt);
	}
	heap_endscan(scan);
	ExecDropSingleTupleTableSlot(slot);
	src.shadow.rel.rd_smgr = RelationGetSmgr(new_rel);
	end_heap_rewrite(src.rewrite);
	MemoryContextDelete(cxt);
	if (src.reader)
		weir_chunk_reader_free(src.reader);
	*rows = src.rows;
	*vacuumed = src.dead;
	*recently_dead = src.recently_dead;
}
