/*-------------------------------------------------------------------------
 *
 * log_order.c
 *	  weir.log_order(stream, ctid): a number by which the rows that a statement
 *	  reads from a stream sort as the log orders them, as views meet them.
 *
 * A scan of a stream goes by blocks, and where a chunk lies says nothing about
 * when it was committed.  The order is that of the numbers that transactions
 * took while they committed, then of the chunks of a transaction, then of the
 * rows of a chunk.  Prepared transactions that have committed but are not
 * adopted yet will get a higher number than any that is there, and the rows of
 * this transaction will too: they come last, in this order.
 *
 * The first call of a statement reads the headers of all chunks its snapshot
 * sees and ranks them; so the function costs a scan without decoding, and 24
 * bytes for each chunk.  It is parallel restricted for that, and because a
 * parallel worker does not know this transaction's unwritten rows.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/relation.h"
#include "access/xact.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/hsearch.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

#include "catalog.h"
#include "log.h"
#include "stream.h"

#define ROW_BITS 8

StaticAssertDecl(WEIR_CHUNK_MAX_ROWS <= 1 << ROW_BITS,
				 "a row's number does not fit");

/* By what a chunk is ranked; in the order of the ranks. */
typedef enum ChunkClass
{
	CHUNK_NUMBERED,
	CHUNK_UNADOPTED, /* its transaction was prepared */
	CHUNK_OWN
} ChunkClass;

typedef struct RankedChunk
{
	uint64 key; /* the transaction's number, or xid; then, of a
				 * chunk that is not our own, its rank */
	uint32 chunk_no;
	ItemPointerData tid;
	uint8 class;
} RankedChunk;

/* A transaction whose record is not in each of its chunks. */
typedef struct Numbered
{
	FullTransactionId xid; /* hash key */
	WeirNumber number;
} Numbered;

/* What the function keeps from row to row. */
typedef struct LogOrder
{
	Oid stream;
	MemoryContext cxt; /* of the chunks */
	uint64 nchunks;
	uint64 space;
	uint64 nothers; /* chunks that are not our own */
	RankedChunk *chunks;
	RankedChunk *last; /* the rows of a chunk come together */
} LogOrder;

PG_FUNCTION_INFO_V1(weir_log_order);

static int
compare_order(const void *a, const void *b)
{
	const RankedChunk *x = a;
	const RankedChunk *y = b;

	if (x->class != y->class)
		return x->class < y->class ? -1 : 1;
	if (x->key != y->key)
		return x->key < y->key ? -1 : 1;
	return (x->chunk_no > y->chunk_no) - (x->chunk_no < y->chunk_no);
}

static int
compare_tid(const void *a, const void *b)
{
	return ItemPointerCompare(
		unconstify(ItemPointerData *, &((const RankedChunk *) a)->tid),
		unconstify(ItemPointerData *, &((const RankedChunk *) b)->tid));
}

static void
add_chunk(LogOrder *o, ChunkClass class, uint64 key, const WeirLogHeader *h)
{
	RankedChunk *c;

	if (o->nchunks == o->space)
	{
		Size size;

		o->space = o->space == 0 ? 256 : o->space * 2;
		size = o->space * sizeof(RankedChunk);
		o->chunks = o->chunks == NULL ? MemoryContextAllocHuge(o->cxt, size)
									  : repalloc_huge(o->chunks, size);
	}
	c = &o->chunks[o->nchunks++];
	c->class = class;
	c->key = key;
	c->chunk_no = h->chunk.chunk_no;
	c->tid = h->tid;
}

static void
note_number(HTAB *numbers, FullTransactionId xid, WeirNumber number)
{
	Numbered *n = hash_search(numbers, &xid, HASH_ENTER, NULL);

	n->number = number;
}

/* Chunks are CHUNK_UNADOPTED until the record of their transaction is found. */
static void
collect_chunks(LogOrder *o, Relation rel, HTAB *numbers)
{
	FullTransactionId own = GetTopFullTransactionIdIfAny();
	WeirLogScan *scan =
		weir_log_scan_begin(rel, GetActiveSnapshot(), 0, InvalidBlockNumber);
	WeirLogHeader h;

	while (weir_log_scan_next_header(scan, &h))
	{
		bool numbered = h.has_record && h.record.kind != WEIR_RECORD_ADOPT &&
						h.record.number != WEIR_NO_NUMBER;

		CHECK_FOR_INTERRUPTS();
		if (h.has_record && h.record.kind == WEIR_RECORD_ADOPT)
			note_number(numbers, h.record.adopts, h.record.number);
		else if (numbered && h.record.nchunks > 1)
			note_number(numbers, h.chunk.xid, h.record.number);
		if (h.chunk.nrows == 0)
			continue;
		if (FullTransactionIdIsValid(own) &&
			FullTransactionIdEquals(h.chunk.xid, own))
			add_chunk(o, CHUNK_OWN, 0, &h);
		else if (numbered)
			add_chunk(o, CHUNK_NUMBERED, h.record.number, &h);
		else
			add_chunk(o, CHUNK_UNADOPTED, U64FromFullTransactionId(h.chunk.xid),
					  &h);
	}
	weir_log_scan_end(scan);
}

static void
rank_chunks(LogOrder *o, Relation rel)
{
	HASHCTL ctl;
	HTAB *numbers;

	MemoryContextReset(o->cxt);
	o->chunks = NULL;
	o->last = NULL;
	o->nchunks = 0;
	o->space = 0;
	o->nothers = 0;

	ctl.keysize = sizeof(FullTransactionId);
	ctl.entrysize = sizeof(Numbered);
	ctl.hcxt = CurrentMemoryContext;
	numbers = hash_create("weir log order", 256, &ctl,
						  HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	collect_chunks(o, rel, numbers);
	for (uint64 i = 0; i < o->nchunks; i++)
	{
		RankedChunk *c = &o->chunks[i];
		FullTransactionId xid = FullTransactionIdFromU64(c->key);
		Numbered *n;

		if (c->class != CHUNK_UNADOPTED)
			continue;
		n = hash_search(numbers, &xid, HASH_FIND, NULL);
		if (n == NULL)
			continue;
		c->class = CHUNK_NUMBERED;
		c->key = n->number;
	}
	hash_destroy(numbers);
	if (o->nchunks == 0)
		return;

	qsort(o->chunks, o->nchunks, sizeof(RankedChunk), compare_order);
	for (uint64 i = 0; i < o->nchunks; i++)
	{
		if (o->chunks[i].class == CHUNK_OWN)
			break;
		o->chunks[i].key = i;
		o->nothers = i + 1;
	}
	qsort(o->chunks, o->nchunks, sizeof(RankedChunk), compare_tid);
}

static RankedChunk *
find_chunk(LogOrder *o, const ItemPointerData *tid)
{
	RankedChunk wanted;

	wanted.tid = *tid;
	if (o->last == NULL || compare_tid(o->last, &wanted) != 0)
		o->last = o->nchunks == 0 ? NULL
								  : bsearch(&wanted, o->chunks, o->nchunks,
											sizeof(RankedChunk), compare_tid);
	return o->last;
}

static LogOrder *
get_order(FunctionCallInfo fcinfo, Oid stream)
{
	LogOrder *o = fcinfo->flinfo->fn_extra;

	if (o == NULL)
	{
		o = MemoryContextAllocZero(fcinfo->flinfo->fn_mcxt, sizeof(LogOrder));
		o->cxt = AllocSetContextCreate(fcinfo->flinfo->fn_mcxt,
									   "weir log order", ALLOCSET_SMALL_SIZES);
		fcinfo->flinfo->fn_extra = o;
	}
	if (o->stream != stream || !OidIsValid(stream))
	{
		Relation rel = try_relation_open(stream, AccessShareLock);

		if (rel == NULL)
			ereport(ERROR,
					(errcode(ERRCODE_UNDEFINED_TABLE),
					 errmsg("relation with OID %u does not exist", stream)));
		if (!weir_catalog_is_stream(rel))
			ereport(ERROR, (errcode(ERRCODE_WRONG_OBJECT_TYPE),
							errmsg("\"%s\" is not a stream",
								   RelationGetRelationName(rel))));
		o->stream = InvalidOid;
		rank_chunks(o, rel);
		o->stream = stream;
		relation_close(rel, AccessShareLock);
	}
	return o;
}

Datum
weir_log_order(PG_FUNCTION_ARGS)
{
	Oid stream = PG_GETARG_OID(0);
	LogOrder *o = get_order(fcinfo, stream);
	WeirRowPlace place;
	RankedChunk *c = NULL;
	uint64 rank;

	if (weir_stream_row_place((ItemPointer) PG_GETARG_POINTER(1), &place))
	{
		if (!place.written)
			PG_RETURN_INT64((int64) (o->nothers + place.chunk_no) << ROW_BITS |
							place.row);
		c = find_chunk(o, &place.chunk);
		if (c == NULL)
		{
			/* it was not written yet when we looked */
			o->stream = InvalidOid;
			o = get_order(fcinfo, stream);
			c = find_chunk(o, &place.chunk);
		}
	}
	if (c == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("stream \"%s\" has no such row", get_rel_name(stream)),
				 errhint("The row must be one that this statement has read.")));
	rank = c->class == CHUNK_OWN ? o->nothers + c->chunk_no : c->key;
	PG_RETURN_INT64((int64) rank << ROW_BITS | place.row);
}
