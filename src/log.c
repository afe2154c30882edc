/*-------------------------------------------------------------------------
 *
 * log.c
 *	  The append-only log of a stream: append, read chunks, collect what they
 *	  say of transactions, rewrite.
 *
 * Relies on heap's own insert, delete, rewrite and visibility; guarantees that
 * a chunk is read iff its heap tuple is visible to the snapshot given, and that a
 * transaction is reported with all of its chunks.  What is done with transactions
 * is in log_reader.c, log_trim.c and log_summary.c.
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
 * exclude each other by an object lock (weir_log_lock_adoption).
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/heapam.h"
#include "access/htup_details.h"
#include "access/rewriteheap.h"
#include "access/tableam.h"
#include "access/transam.h"
#include "catalog/pg_class.h"
#include "catalog/pg_type.h"
#include "executor/tuptable.h"
#include "miscadmin.h"
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
#include "log_private.h"
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

/* ---------------------------------------------------- append and delete */

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

bool
weir_log_delete(Relation rel, ItemPointer tid, CommandId cid)
{
	Shadow shadow;
	TM_FailureData failure;

	return heap_delete(make_shadow(&shadow, rel), tid, cid, InvalidSnapshot,
					   true, &failure, false) == TM_Ok;
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

void
weir_log_scan_pass_over(WeirLogScan *scan, const WeirRuns *runs)
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

void
weir_log_scan_with_pieces(WeirLogScan *scan)
{
	scan->with_pieces = true;
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
		weir_log_scan_pass_over(scan, scan->runs);
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
					  OffsetNumber only, WeirBlockChunk *chunks)
{
	Page page;
	OffsetNumber first = only == InvalidOffsetNumber ? FirstOffsetNumber : only;
	OffsetNumber last;
	int n = 0;

	LockBuffer(buffer, BUFFER_LOCK_SHARE);
	page = BufferGetPage(buffer);
	last = PageGetMaxOffsetNumber(page);
	if (only != InvalidOffsetNumber)
		last = Min(last, only);
	for (OffsetNumber off = first; off <= last; off++)
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

HTAB *
weir_log_xid_hash(const char *name, Size entrysize, MemoryContext cxt)
{
	HASHCTL ctl;

	ctl.keysize = sizeof(FullTransactionId);
	ctl.entrysize = entrysize;
	ctl.hcxt = cxt;
	return hash_create(name, 256, &ctl, HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
}

static void
report_collected(const WeirLogCollect *w, const Collected *c, WeirNumber number,
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
collect_headers(WeirLogCollect *w, WeirLogScan *scan, bool known)
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
collect_elsewhere(WeirLogCollect *w)
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

/* Only transactions that are not yet complete are kept in memory. */
void
weir_log_collect(WeirLogCollect *w)
{
	MemoryContext cxt = AllocSetContextCreate(
		CurrentMemoryContext, "weir log collect", ALLOCSET_DEFAULT_SIZES);
	WeirLogScan *scan =
		weir_log_scan_begin(w->rel, w->snapshot, 0, InvalidBlockNumber);
	HASH_SEQ_STATUS seq;
	Collected *c;

	w->collected = weir_log_xid_hash("weir collected", sizeof(Collected), cxt);
	w->adopted = weir_log_xid_hash("weir adopted", sizeof(Adopted), cxt);
	w->nbytes = 0;
	if (w->runs)
		weir_log_scan_pass_over(scan, w->runs);
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
	WeirLogCollect collect = {.rel = rel,
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
	weir_log_collect(&collect);
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
	weir_log_scan_pass_over(scan, runs);
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

static void
adoption_tag(LOCKTAG *tag, Oid stream)
{
	SET_LOCKTAG_OBJECT(*tag, MyDatabaseId, RelationRelationId, stream,
					   WEIR_LOCK_ADOPTION);
}

bool
weir_log_lock_adoption(Oid stream)
{
	LOCKTAG tag;

	adoption_tag(&tag, stream);
	return LockAcquire(&tag, ShareLock, false, true) != LOCKACQUIRE_NOT_AVAIL;
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

/* True, too, of one that is older than the commit log: what it has written says. */
bool
weir_log_did_commit(FullTransactionId xid)
{
	bool result;

	LWLockAcquire(XactTruncationLock, LW_SHARED);
	result = TransactionIdPrecedes(XidFromFullTransactionId(xid),
								   WEIR_OLDEST_CLOG_XID) ||
			 TransactionIdDidCommit(XidFromFullTransactionId(xid));
	LWLockRelease(XactTruncationLock);
	return result;
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
			weir_log_did_commit(p.xid))
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
 * for one that has none; once all are known they may go on.
 */
bool
weir_log_collect_prepared(Relation rel, bool wait)
{
	LOCKTAG tag;
	CollectPrepared c;
	SnapshotData dirty;
	WeirRuns *runs;
	WeirLogCollect collect = {.rel = rel,
							  .snapshot = &dirty,
							  .from = WEIR_NO_NUMBER,
							  .callback = add_collected_prepared,
							  .arg = &c};

	c.stream = RelationGetRelid(rel);
	c.filenumber = weir_rel_number(rel);
	c.full = false;
	adoption_tag(&tag, c.stream);
	if (LockAcquire(&tag, ExclusiveLock, false, !wait) == LOCKACQUIRE_NOT_AVAIL)
		return false;
	weir_debug_point("collect-prepared");
	InitDirtySnapshot(dirty);
	runs = weir_runs_load(rel);
	for (int i = 0; i < runs->n; i++)
		runs->runs[i].skip = true; /* no record of such a transaction in it */
	collect.runs = runs;
	weir_log_collect(&collect);
	weir_runs_free(runs);
	if (c.full)
		ereport(WARNING,
				(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
				 errmsg("too many prepared transactions wrote to streams"),
				 errdetail("Their events count once others are finished."),
				 errhint("Increase max_prepared_transactions.")));
	else
	{
		WeirStreamShared *s = weir_shmem_stream(c.stream, true);

		if (s != NULL)
			pg_atomic_write_u32(&s->collected, 1);
	}
	LockRelease(&tag, ExclusiveLock, false);
	return true;
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
