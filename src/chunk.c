/*-------------------------------------------------------------------------
 *
 * chunk.c
 *	  The encoding of some rows as one chunk, column by column.
 *
 * Pure: knows no relation, no buffer, no WAL.  A builder collects rows and
 * keeps count of what they will take, so that a finished image fills a heap
 * page and no more; a reader decodes an image into one array per column.
 * Above the cost of parsing, the price of an event is the price of the bytes
 * it takes; so integers (timestamps, ids) are stored as their distance from
 * the smallest one of the chunk, in as few bytes as the largest distance needs.
 *
 * An image is bytes from disk: the reader trusts no length in it and never
 * reads outside; whatever is wrong raises XX001, a newer format 0A000.
 *
 * Format 1.  All numbers in the byte order of the server; offsets in bytes.
 *
 *	image:
 *	  0	  4	 varlena length of what is stored; set by the builder if the image
 *			 is small enough to be a varlena, never looked at by the reader
 *	  4	  1	 format = 1
 *	  5	  1	 flags, WEIR_CHUNK_*
 *	  6	  2	 natts: columns in the directory
 *	  8	  8	 xid8 of the top transaction
 *	  16  4	 chunk_no
 *	  20  2	 nrows, 0..255
 *	  22  2	 zero
 *	  24  4	 raw_len: bytes of the body before compression
 *	  28  4	 CRC-32C of bytes 4..27 (in the flags PIECE and HAS_NEXT, which
 *			 are log.c's, count as 0) and of 32..end
 *	  32 16	 if HAS_TIME: smallest, largest event time
 *	  ...48	 if RECORD: number, arrival, watermark, adopts, nrows (8 each),
 *			 nchunks, kind (4 each)
 *	  ...	 body to the end; if LZ4, an LZ4 block of raw_len bytes
 *
 *	body:
 *	  natts	 the directory: one byte a column, a kind below, + 0x80 if the
 *			 column has nulls beside values
 *	  then the columns in order, each, unless its kind is NULLS:
 *	  - if 0x80: (nrows + 7) / 8 bytes, bit i (lowest first) set: row i is null
 *	  - by kind, n being the number of rows that are not null:
 *		DIST0..DIST4	base (attlen bytes: 1, 2, 4, 8), then n unsigned
 *						distances of 0, 1, 2 or 4 bytes each; no padding
 *		RAW1..RAW8		n values of attlen bytes; no padding
 *		BYREF			zeros up to a multiple of 8 of the body offset; uint32
 *						length of what follows; n values as in a heap tuple:
 *						fixed-length by reference, varlena (a short one with a
 *						1-byte header, a compressed one compressed, never
 *						external), or C string, each aligned as its type asks,
 *						with zeros before
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <lz4.h>

#include "access/detoast.h"
#include "access/htup_details.h"
#include "access/tupmacs.h"
#include "port/pg_bitutils.h"
#include "port/pg_crc32c.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"

#include "chunk.h"
#include "guc.h"

typedef enum ColumnKind
{
	KIND_NULLS = 0,
	KIND_DIST0 = 1,
	KIND_DIST1 = 2,
	KIND_DIST2 = 3,
	KIND_DIST4 = 4,
	KIND_RAW1 = 5,
	KIND_RAW2 = 6,
	KIND_RAW4 = 7,
	KIND_RAW8 = 8,
	KIND_BYREF = 9
} ColumnKind;

#define KIND_HAS_NULLS 0x80
#define BYREF_LENGTH   sizeof(uint32)

#define CRC_FLAGS_IGNORED (WEIR_CHUNK_PIECE | WEIR_CHUNK_HAS_NEXT)

#define TIMES_SIZE (2 * sizeof(TimestampTz))

/* What the body may take so that every header part fits beside it. */
#define BODY_MAX \
	(WEIR_CHUNK_MAX - sizeof(WeirChunkHeader) - TIMES_SIZE - sizeof(WeirRecord))

/* How far a body that will be compressed may grow, in bodies. */
#define LZ4_MAX_RATIO 4.0

/* Memory for by-reference values, in blocks chained newest first. */
typedef struct Block
{
	struct Block *next;
	Size size; /* of data */
	Size used;
	char data[FLEXIBLE_ARRAY_MEMBER];
} Block;

#define BLOCK_DATA	offsetof(Block, data)
#define BLOCK_MIN	1024
#define BLOCK_USUAL 16384

typedef struct BuilderColumn
{
	int16 attlen;
	bool byval;
	bool dropped;
	bool may_short; /* varlena header may shrink to 1 byte */
	char align;
	int nnulls;
	int nvalues;

	/* byval: the values as signed numbers; good if nvalues > 0 */
	int64 min;
	int64 max;
	int width; /* bytes a value; = attlen: stored as it is */

	/* else: length of the data, from BYREF_LENGTH past a multiple of 8 */
	Size len;
} BuilderColumn;

struct WeirChunkBuilder
{
	MemoryContext cxt;
	int natts;
	int event_attno;
	int nrows;
	int capacity;  /* rows that values and nulls have room for */
	Datum *values; /* row by row: [row * natts + column] */
	bool *nulls;
	Block *blocks;
	Size limit;		 /* the body may not pass it, except for one
								 * row alone */
	Size fixed;		 /* directory, and paddings at their worst */
	Size data;		 /* columns' values, bases and lengths */
	int ncols_nulls; /* columns that need a bitmap */
	bool lz4;		 /* the body will be compressed */
	BuilderColumn cols[FLEXIBLE_ARRAY_MEMBER];
};

struct WeirChunkReaderPrivate
{
	MemoryContext cxt;
	bool *want;	  /* per column of the descriptor */
	bool **nulls; /* room for 255 each; made when first needed */
	char *copy;	  /* of an image at an odd address */
	Size copy_size;
	char *raw; /* decompressed body */
	Size raw_size;
};

/*
 * How much smaller compression has lately made this process's chunks.
 * XXX one number for all streams: a session that writes to a stream that
 * compresses well and one that does not will now and then write a chunk that
 * takes two pages.
 */
static double last_lz4_ratio = 1.5;

/* ------------------------------------------------------------------------
 * Building
 * ------------------------------------------------------------------------
 */

WeirChunkBuilder *
weir_chunk_builder_create(TupleDesc desc, AttrNumber event_attno)
{
	int natts = desc->natts;
	WeirChunkBuilder *b = palloc0(offsetof(WeirChunkBuilder, cols) +
								  natts * sizeof(BuilderColumn));

	b->cxt = CurrentMemoryContext;
	b->natts = natts;
	b->event_attno = event_attno;
	b->lz4 = weir_compression == WEIR_COMPRESSION_LZ4;
	b->limit = BODY_MAX;
	if (b->lz4)
		b->limit *= last_lz4_ratio;

	b->fixed = natts;
	for (int i = 0; i < natts; i++)
	{
		Form_pg_attribute att = TupleDescAttr(desc, i);
		BuilderColumn *col = &b->cols[i];

		col->attlen = att->attlen;
		col->byval = att->attbyval;
		col->align = att->attalign;
		col->dropped = att->attisdropped;
		col->may_short =
			att->attlen == -1 && att->attstorage != TYPSTORAGE_PLAIN;
		if (!col->byval && !col->dropped)
			b->fixed += MAXIMUM_ALIGNOF - 1;
	}
	return b;
}

static void
free_blocks(Block *block)
{
	while (block != NULL)
	{
		Block *next = block->next;

		pfree(block);
		block = next;
	}
}

void
weir_chunk_builder_free(WeirChunkBuilder *b)
{
	free_blocks(b->blocks);
	if (b->values != NULL)
		pfree(b->values);
	if (b->nulls != NULL)
		pfree(b->nulls);
	pfree(b);
}

int
weir_chunk_builder_nrows(const WeirChunkBuilder *b)
{
	return b->nrows;
}

TimestampTz
weir_chunk_builder_max_time(const WeirChunkBuilder *b)
{
	if (b->event_attno == 0 || b->cols[b->event_attno - 1].nvalues == 0)
		return WEIR_NO_TIME;
	return b->cols[b->event_attno - 1].max;
}

/*
 * Forget the rows, keep the memory a next chunk will want.
 */
static void
reset(WeirChunkBuilder *b)
{
	if (b->blocks != NULL)
	{
		free_blocks(b->blocks->next);
		b->blocks->next = NULL;
		b->blocks->used = 0;
		if (b->blocks->size > BLOCK_USUAL)
		{
			pfree(b->blocks);
			b->blocks = NULL;
		}
	}
	b->nrows = 0;
	b->data = 0;
	b->ncols_nulls = 0;
	for (int i = 0; i < b->natts; i++)
	{
		BuilderColumn *col = &b->cols[i];

		col->nnulls = 0;
		col->nvalues = 0;
		col->width = 0;
		col->len = 0;
	}
}

/* Room for n bytes at a MAXALIGNed address, or at any (align false). */
static char *
block_alloc(WeirChunkBuilder *b, Size n, bool align)
{
	Block *block = b->blocks;
	Size at = 0;
	char *result;

	if (block != NULL)
		at = align ? MAXALIGN(block->used) : block->used;
	if (block == NULL || at > block->size || block->size - at < n)
	{
		Size size = block == NULL ? BLOCK_MIN : BLOCK_USUAL;

		size = Max(size, n);
		block = MemoryContextAllocHuge(b->cxt, BLOCK_DATA + size);
		block->size = size;
		block->next = b->blocks;
		b->blocks = block;
		at = 0;
	}
	result = block->data + at;
	block->used = at + n;
	return result;
}

/* A by-value Datum as a signed number, as a heap tuple would return it. */
static inline int64
datum_number(Datum value, int16 attlen)
{
	switch (attlen)
	{
		case 1:
			return (int8) value;
		case 2:
			return (int16) value;
		case 4:
			return (int32) value;
		default:
			return (int64) value;
	}
}

/* Bytes that distances up to max - min take; attlen: store the values. */
static inline int
width_of(int64 min, int64 max, int16 attlen)
{
	uint64 span = (uint64) max - (uint64) min;
	int width;

	if (span == 0)
		width = 0;
	else if (span <= PG_UINT8_MAX)
		width = 1;
	else if (span <= PG_UINT16_MAX)
		width = 2;
	else if (span <= PG_UINT32_MAX)
		width = 4;
	else
		width = 8;
	return Min(width, attlen);
}

/* What a by-value column of n values takes. */
static inline Size
number_size(int16 attlen, int width, int n)
{
	if (n == 0)
		return 0;
	return (width < attlen ? attlen : 0) + (Size) width * n;
}

/* The size in which a by-reference value is stored. */
static Size
byref_size(const BuilderColumn *col, Datum value)
{
	const void *p = DatumGetPointer(value);

	if (col->attlen > 0)
		return col->attlen;
	if (col->attlen == -2)
		return strlen(p) + 1;
	if (VARATT_IS_EXTERNAL(p))
		elog(ERROR, "external value in a stream's row");
	if (col->may_short && VARATT_CAN_MAKE_SHORT(p))
		return VARATT_CONVERTED_SHORT_SIZE(p);
	return VARSIZE_ANY(p);
}

/* Stored without alignment? */
static bool
byref_packed(const BuilderColumn *col, Datum value)
{
	return col->attlen == -1 &&
		   (VARATT_IS_1B(DatumGetPointer(value)) ||
			(col->may_short && VARATT_CAN_MAKE_SHORT(DatumGetPointer(value))));
}

/* Length of a column's data with one more value. */
static inline Size
byref_place(const BuilderColumn *col, Size len, Datum value, Size size)
{
	Size at = len == 0 ? BYREF_LENGTH : len;

	if (!byref_packed(col, value))
		at = att_align_nominal(at, col->align);
	return at + size;
}

/* Copy a by-reference value into the builder, in the form it is stored in. */
static Datum
byref_copy(WeirChunkBuilder *b, const BuilderColumn *col, Datum value)
{
	Size size = byref_size(col, value);
	char *p = block_alloc(b, size, !byref_packed(col, value));
	const char *from = DatumGetPointer(value);

	if (col->attlen == -1 && size < VARSIZE_ANY(from))
	{
		SET_VARSIZE_SHORT(p, size);
		memcpy(p + VARHDRSZ_SHORT, from + VARHDRSZ, size - VARHDRSZ_SHORT);
	}
	else
		memcpy(p, from, size);
	return PointerGetDatum(p);
}

static void
make_room(WeirChunkBuilder *b)
{
	int capacity = b->capacity == 0 ? 4 : b->capacity * 4;
	Size cells = (Size) capacity * b->natts;

	if (b->capacity == 0)
	{
		b->values =
			MemoryContextAllocHuge(b->cxt, Max(cells, 1) * sizeof(Datum));
		b->nulls = MemoryContextAllocHuge(b->cxt, Max(cells, 1));
	}
	else
	{
		b->values = repalloc_huge(b->values, Max(cells, 1) * sizeof(Datum));
		b->nulls = repalloc_huge(b->nulls, Max(cells, 1));
	}
	b->capacity = capacity;
}

static void
check_body(Size body)
{
	if (body > PG_UINT32_MAX - BLCKSZ)
		ereport(ERROR, (errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
						errmsg("row is too large for a stream"),
						errdetail("A row may take up to 4 GB.")));
}

/*
 * Two passes, as a row that does not fit must leave no trace: the first
 * reckons what the chunk would take with it, the second puts it there.
 * force: the caller knows that it may stay.
 */
static bool
add_row(WeirChunkBuilder *b, const Datum *values, const bool *nulls, bool force)
{
	int natts = b->natts;
	Size data = b->data;
	int ncols_nulls = b->ncols_nulls;
	Size body;
	Datum *row;
	bool *rownulls;

	if (b->nrows >= WEIR_CHUNK_MAX_ROWS)
		return false;

	for (int i = 0; i < natts; i++)
	{
		const BuilderColumn *col = &b->cols[i];

		if (unlikely(nulls[i] || col->dropped))
		{
			if (col->nnulls == 0 && col->nvalues > 0)
				ncols_nulls++;
			continue;
		}
		if (col->nvalues == 0 && col->nnulls > 0)
			ncols_nulls++;
		if (col->byval)
		{
			int64 v = datum_number(values[i], col->attlen);

			if (likely(col->nvalues > 0 && v >= col->min && v <= col->max))
				data += col->width;
			else
			{
				bool first = col->nvalues == 0;
				int64 min = first ? v : Min(v, col->min);
				int64 max = first ? v : Max(v, col->max);
				int width = width_of(min, max, col->attlen);

				data += number_size(col->attlen, width, col->nvalues + 1);
				data -= number_size(col->attlen, col->width, col->nvalues);
			}
		}
		else
		{
			Size size = byref_size(col, values[i]);

			data += byref_place(col, col->len, values[i], size) - col->len;
		}
	}

	body = b->fixed + data + ncols_nulls * (Size) ((b->nrows + 8) / 8);
	if (body > b->limit)
	{
		if (b->nrows > 0 && !force)
			return false;
		check_body(body);
	}

	if (b->nrows >= b->capacity)
		make_room(b);
	row = b->values + (Size) b->nrows * natts;
	rownulls = b->nulls + (Size) b->nrows * natts;
	for (int i = 0; i < natts; i++)
	{
		BuilderColumn *col = &b->cols[i];

		if (unlikely(nulls[i] || col->dropped))
		{
			row[i] = (Datum) 0;
			rownulls[i] = true;
			col->nnulls++;
			continue;
		}
		rownulls[i] = false;
		if (col->byval)
		{
			int64 v = datum_number(values[i], col->attlen);

			row[i] = (Datum) v;
			if (unlikely(col->nvalues == 0))
				col->min = col->max = v;
			else if (v < col->min || v > col->max)
			{
				col->min = Min(v, col->min);
				col->max = Max(v, col->max);
				col->width = width_of(col->min, col->max, col->attlen);
			}
		}
		else
		{
			row[i] = byref_copy(b, col, values[i]);
			col->len = byref_place(col, col->len, values[i],
								   byref_size(col, values[i]));
		}
		col->nvalues++;
	}
	b->nrows++;
	b->data = data;
	b->ncols_nulls = ncols_nulls;
	return true;
}

bool
weir_chunk_builder_add(WeirChunkBuilder *b, const Datum *values,
					   const bool *nulls)
{
	return add_row(b, values, nulls, false);
}

bool
weir_chunk_flatten(TupleDesc desc, Datum *values, bool *nulls)
{
	bool changed = false;
	Size total = 0;

	/* before a copy of it takes the memory */
	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute att = TupleDescAttr(desc, i);

		if (att->attlen == -1 && !nulls[i] && !att->attisdropped)
			total += toast_datum_size(values[i]);
	}
	check_body(total);

	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute att = TupleDescAttr(desc, i);
		struct varlena *value = (struct varlena *) DatumGetPointer(values[i]);

		if (att->attlen != -1 || nulls[i] || att->attisdropped ||
			!VARATT_IS_EXTERNAL(value))
			continue;
		values[i] = PointerGetDatum(detoast_external_attr(value));
		changed = true;
	}
	return changed;
}

void
weir_chunk_builder_get(const WeirChunkBuilder *b, int i, Datum *values,
					   bool *nulls)
{
	Assert(i >= 0 && i < b->nrows);
	memcpy(values, b->values + (Size) i * b->natts, b->natts * sizeof(Datum));
	memcpy(nulls, b->nulls + (Size) i * b->natts, b->natts);
}

/*
 * What the body would take with the rows of both.
 */
static Size
merged_body(const WeirChunkBuilder *dst, const WeirChunkBuilder *src)
{
	int nrows = dst->nrows + src->nrows;
	Size body = dst->fixed;

	for (int i = 0; i < dst->natts; i++)
	{
		const BuilderColumn *d = &dst->cols[i];
		const BuilderColumn *s = &src->cols[i];
		int nvalues = d->nvalues + s->nvalues;

		if (nvalues == 0)
			continue;
		if (d->nnulls + s->nnulls > 0)
			body += (nrows + 7) / 8;
		if (!d->byval)
		{
			/* alignment may differ from src's: add what it can cost */
			body += d->len + s->len + MAXIMUM_ALIGNOF * (Size) s->nvalues;
			continue;
		}
		if (d->nvalues == 0 || s->nvalues == 0)
		{
			const BuilderColumn *c = d->nvalues > 0 ? d : s;

			body += number_size(c->attlen, c->width, nvalues);
		}
		else
			body += number_size(
				d->attlen,
				width_of(Min(d->min, s->min), Max(d->max, s->max), d->attlen),
				nvalues);
	}
	return body;
}

/*
 * Rows that were one chunk stay one chunk in an empty builder, even if that is
 * oversized or src was allowed to grow further.
 */
bool
weir_chunk_builder_merge(WeirChunkBuilder *dst, WeirChunkBuilder *src)
{
	Assert(dst->natts == src->natts);
	if (src->nrows == 0)
		return true;
	if (dst->nrows + src->nrows > WEIR_CHUNK_MAX_ROWS ||
		(dst->nrows > 0 && merged_body(dst, src) > dst->limit))
		return false;

	for (int i = 0; i < src->nrows; i++)
		(void) add_row(dst, src->values + (Size) i * src->natts,
					   src->nulls + (Size) i * src->natts, true);
	return true;
}

Size
weir_chunk_head_length(const char *image)
{
	const WeirChunkHeader *h = (const WeirChunkHeader *) image;
	Size n = sizeof(WeirChunkHeader);

	if (h->flags & WEIR_CHUNK_HAS_TIME)
		n += TIMES_SIZE;
	if (h->flags & WEIR_CHUNK_RECORD)
		n += sizeof(WeirRecord);
	return n;
}

/*
 * CRC-16 (polynomial 0x1021): no change within two bytes escapes it.  A scan of
 * the log reads heads alone, and goes by them.
 */
static uint16
head_sum(const char *image)
{
	Size len = weir_chunk_head_length(image);
	uint16 sum = 0xffff;

	for (Size i = offsetof(WeirChunkHeader, format); i < len; i++)
	{
		uint8 byte = image[i];

		if (i >= offsetof(WeirChunkHeader, head_sum) &&
			i < offsetof(WeirChunkHeader, raw_len))
			byte = 0;
		/* the remainder of eight bits at once */
		byte ^= sum >> 8;
		byte ^= byte >> 4;
		sum = (sum << 8) ^ ((uint16) byte << 12) ^ ((uint16) byte << 5) ^ byte;
	}
	return sum;
}

void
weir_chunk_seal_head(char *image)
{
	((WeirChunkHeader *) image)->head_sum = head_sum(image);
}

bool
weir_chunk_head_is_sealed(const char *image)
{
	return ((const WeirChunkHeader *) image)->head_sum == head_sum(image);
}

static pg_crc32c
image_crc(const char *image, Size len)
{
	WeirChunkHeader header;
	pg_crc32c crc;

	memcpy(&header, image, sizeof(header));
	header.flags &= ~CRC_FLAGS_IGNORED;
	header.head_sum = 0;
	INIT_CRC32C(crc);
	COMP_CRC32C(crc, (char *) &header + offsetof(WeirChunkHeader, format),
				offsetof(WeirChunkHeader, crc) -
					offsetof(WeirChunkHeader, format));
	COMP_CRC32C(crc, image + sizeof(header), len - sizeof(header));
	FIN_CRC32C(crc);
	return crc;
}

static char *
put_number(char *p, int64 v, int16 attlen)
{
	switch (attlen)
	{
		case 1:
			*(int8 *) p = (int8) v;
			break;
		case 2:
		{
			int16 v2 = (int16) v;

			memcpy(p, &v2, sizeof(v2));
			break;
		}
		case 4:
		{
			int32 v4 = (int32) v;

			memcpy(p, &v4, sizeof(v4));
			break;
		}
		default:
			memcpy(p, &v, sizeof(v));
	}
	return p + attlen;
}

/*
 * The values of a by-value column as their distances from base, or as they
 * are with base 0, in width bytes each.
 */
static char *
put_numbers(char *p, const WeirChunkBuilder *b, int column, int width,
			int64 base)
{
	const Datum *v = b->values + column;
	const bool *null = b->nulls + column;
	int natts = b->natts;

#define PUT_LOOP(type)                                            \
	for (int i = 0; i < b->nrows; i++, v += natts, null += natts) \
	{                                                             \
		type x = (type) ((uint64) *v - (uint64) base);            \
		if (*null)                                                \
			continue;                                             \
		memcpy(p, &x, sizeof(x));                                 \
		p += sizeof(x);                                           \
	}

	switch (width)
	{
		case 0:
			break;
		case 1:
			PUT_LOOP(uint8);
			break;
		case 2:
			PUT_LOOP(uint16);
			break;
		case 4:
			PUT_LOOP(uint32);
			break;
		default:
			PUT_LOOP(uint64);
			break;
	}
#undef PUT_LOOP
	return p;
}

static char *
put_byref(char *p, const WeirChunkBuilder *b, int column)
{
	const BuilderColumn *col = &b->cols[column];
	const Datum *v = b->values + column;
	const bool *null = b->nulls + column;
	Size at = BYREF_LENGTH;
	uint32 len = (uint32) (col->len - BYREF_LENGTH);

	memcpy(p, &len, sizeof(len));
	for (int i = 0; i < b->nrows; i++, v += b->natts, null += b->natts)
	{
		Size size;
		Size end;

		if (*null)
			continue;
		size = byref_size(col, *v);
		end = byref_place(col, at, *v, size);
		memset(p + at, 0, end - size - at);
		memcpy(p + end - size, DatumGetPointer(*v), size);
		at = end;
	}
	Assert(at == col->len);
	return p + at;
}

/* Which kind a column is stored as, without KIND_HAS_NULLS. */
static ColumnKind
column_kind(const BuilderColumn *col)
{
	if (col->nvalues == 0)
		return KIND_NULLS;
	if (!col->byval)
		return KIND_BYREF;
	if (col->width == col->attlen)
	{
		switch (col->attlen)
		{
			case 1:
				return KIND_RAW1;
			case 2:
				return KIND_RAW2;
			case 4:
				return KIND_RAW4;
			default:
				return KIND_RAW8;
		}
	}
	switch (col->width)
	{
		case 0:
			return KIND_DIST0;
		case 1:
			return KIND_DIST1;
		case 2:
			return KIND_DIST2;
		default:
			return KIND_DIST4;
	}
}

/* Exactly the bytes put_body will write. */
static Size
body_size(const WeirChunkBuilder *b)
{
	Size at = b->natts;

	for (int i = 0; i < b->natts; i++)
	{
		const BuilderColumn *col = &b->cols[i];

		if (col->nvalues == 0)
			continue;
		if (col->nnulls > 0)
			at += (b->nrows + 7) / 8;
		if (col->byval)
			at += number_size(col->attlen, col->width, col->nvalues);
		else
			at = MAXALIGN(at) + col->len;
	}
	return at;
}

static void
put_body(const WeirChunkBuilder *b, char *body)
{
	char *p = body + b->natts;

	for (int i = 0; i < b->natts; i++)
	{
		const BuilderColumn *col = &b->cols[i];
		ColumnKind kind = column_kind(col);

		body[i] = kind;
		if (kind == KIND_NULLS)
			continue;
		if (col->nnulls > 0)
		{
			const bool *null = b->nulls + i;

			body[i] |= KIND_HAS_NULLS;
			memset(p, 0, (b->nrows + 7) / 8);
			for (int r = 0; r < b->nrows; r++, null += b->natts)
			{
				if (*null)
					p[r / 8] |= 1 << (r % 8);
			}
			p += (b->nrows + 7) / 8;
		}
		if (kind == KIND_BYREF)
		{
			Size at = p - body;

			memset(p, 0, MAXALIGN(at) - at);
			p = put_byref(body + MAXALIGN(at), b, i);
		}
		else if (col->width == col->attlen)
			p = put_numbers(p, b, i, col->width, 0);
		else
		{
			p = put_number(p, col->min, col->attlen);
			p = put_numbers(p, b, i, col->width, col->min);
		}
	}
}

/*
 * Compress a body into dest, which has room for the body itself.  0: it did
 * not become shorter.
 */
static Size
compress_body(const char *body, Size len, char *dest)
{
	int n;

	if (len < 32)
		return 0;
	n = LZ4_compress_default(body, dest, (int) len, (int) len - 1);
	return n > 0 ? (Size) n : 0;
}

/* Let the next body grow as this one was compressed, but not too fast. */
static void
learn_ratio(WeirChunkBuilder *b, Size raw, Size stored)
{
	double ratio = (double) raw / Max(stored, 1);

	/* aim a little below the page; fall at once, rise by degrees */
	ratio = ratio * 0.95;
	if (ratio > last_lz4_ratio)
		ratio = (ratio + last_lz4_ratio) / 2;
	last_lz4_ratio = Max(1.0, Min(ratio, LZ4_MAX_RATIO));
	b->limit = BODY_MAX * last_lz4_ratio;
}

/* times, record: NULL or what the header shall say. */
static char *
build_image(WeirChunkBuilder *b, FullTransactionId xid, uint32 chunk_no,
			const TimestampTz *times, const WeirRecord *record, bool lz4,
			Size *len)
{
	WeirChunkHeader header;
	Size head = sizeof(header);
	Size raw = b->nrows > 0 ? body_size(b) : 0;
	Size stored = raw;
	char *image;
	char *p;

	memset(&header, 0, sizeof(header));
	header.format = WEIR_CHUNK_FORMAT;
	header.natts = b->nrows > 0 ? b->natts : 0;
	header.xid = xid;
	header.chunk_no = chunk_no;
	header.nrows = b->nrows;
	header.raw_len = raw;
	if (times != NULL)
	{
		header.flags |= WEIR_CHUNK_HAS_TIME;
		head += TIMES_SIZE;
	}
	if (record != NULL)
	{
		header.flags |= WEIR_CHUNK_RECORD;
		head += sizeof(WeirRecord);
	}

	image = palloc_extended(head + raw, MCXT_ALLOC_HUGE);
	p = image + sizeof(header);
	if (times != NULL)
	{
		memcpy(p, times, TIMES_SIZE);
		p += TIMES_SIZE;
	}
	if (record != NULL)
	{
		memcpy(p, record, sizeof(WeirRecord));
		p += sizeof(WeirRecord);
	}

	if (lz4 && raw > 0 && raw <= LZ4_MAX_INPUT_SIZE)
	{
		char *body = palloc_extended(raw, MCXT_ALLOC_HUGE);
		Size n;

		put_body(b, body);
		n = compress_body(body, raw, p);
		if (n > 0)
		{
			header.flags |= WEIR_CHUNK_LZ4;
			stored = n;
		}
		else
			memcpy(p, body, raw);
		pfree(body);
		/* a few rows say little about a full chunk */
		if (raw >= BODY_MAX / 2)
			learn_ratio(b, raw, stored);
	}
	else if (raw > 0)
		put_body(b, p);

	*len = head + stored;
	if (*len <= MaxAllocSize)
		SET_VARSIZE(&header, *len);
	memcpy(image, &header, sizeof(header));
	((WeirChunkHeader *) image)->crc = image_crc(image, *len);
	weir_chunk_seal_head(image);
	reset(b);
	return image;
}

char *
weir_chunk_builder_finish(WeirChunkBuilder *b, FullTransactionId xid,
						  uint32 chunk_no, const WeirRecord *record, bool lz4,
						  Size *len)
{
	TimestampTz times[2];

	if (weir_chunk_builder_max_time(b) == WEIR_NO_TIME)
		return build_image(b, xid, chunk_no, NULL, record, lz4, len);
	times[0] = b->cols[b->event_attno - 1].min;
	times[1] = b->cols[b->event_attno - 1].max;
	return build_image(b, xid, chunk_no, times, record, lz4, len);
}

/* ------------------------------------------------------------------------
 * Reading
 * ------------------------------------------------------------------------
 */

/* The row type of the table whose chunk is being read, for messages. */
static Oid chunk_type = InvalidOid;

static void
damaged(const char *what)
{
	Oid relid =
		OidIsValid(chunk_type) ? get_typ_typrelid(chunk_type) : InvalidOid;
	char *name = OidIsValid(relid) ? get_rel_name(relid) : NULL;

	ereport(ERROR,
			(errcode(ERRCODE_DATA_CORRUPTED),
			 errmsg("log of stream \"%s\" is damaged", name ? name : "?"),
			 errdetail_internal("%s", what)));
}

static inline void
check(bool ok, const char *what)
{
	if (unlikely(!ok))
		damaged(what);
}

/*
 * Check the fixed part and say how long the parts before the body are, log.c's
 * link not included.
 */
static Size
read_header(const char *image, Size len, WeirChunkHeader *header)
{
	Size head = sizeof(WeirChunkHeader);

	check(len >= sizeof(WeirChunkHeader), "It is shorter than its header.");
	memcpy(header, image, sizeof(WeirChunkHeader));
	if (header->format != WEIR_CHUNK_FORMAT)
		ereport(
			ERROR,
			(errcode(header->format > WEIR_CHUNK_FORMAT
						 ? ERRCODE_FEATURE_NOT_SUPPORTED
						 : ERRCODE_DATA_CORRUPTED),
			 errmsg("chunk of a stream has unknown format %d", header->format),
			 errhint(
				 "It is damaged, or a newer release of pg_weir wrote it.")));
	check(header->nrows <= WEIR_CHUNK_MAX_ROWS, "It has too many rows.");
	check(header->natts <= MaxTupleAttributeNumber, "It has too many columns.");
	if (header->flags & WEIR_CHUNK_HAS_TIME)
		head += TIMES_SIZE;
	if (header->flags & WEIR_CHUNK_RECORD)
		head += sizeof(WeirRecord);
	check(len >= head, "It is shorter than its header.");
	return head;
}

/*
 * The image may be the head of one that log.c has cut, or have been copied to
 * any address; the checksum is not looked at.
 */
bool
weir_chunk_peek(const char *image, Size len, TimestampTz *min_time,
				TimestampTz *max_time, WeirRecord *record)
{
	WeirChunkHeader header;
	const char *p = image + sizeof(WeirChunkHeader);

	(void) read_header(image, len, &header);
	check((header.flags & WEIR_CHUNK_PIECE) == 0, "A piece is not a chunk.");
	*min_time = *max_time = WEIR_NO_TIME;
	if (header.flags & WEIR_CHUNK_HAS_TIME)
	{
		memcpy(min_time, p, sizeof(*min_time));
		memcpy(max_time, p + sizeof(*min_time), sizeof(*max_time));
		p += TIMES_SIZE;
	}
	if ((header.flags & WEIR_CHUNK_RECORD) == 0)
		return false;
	memcpy(record, p, sizeof(*record));
	return true;
}

WeirChunkReader *
weir_chunk_reader_create(TupleDesc desc, Bitmapset *needed)
{
	WeirChunkReader *r = palloc0(sizeof(WeirChunkReader));
	int slots = Max(desc->natts, 1);

	r->desc = desc;
	r->needed = bms_copy(needed);
	r->values = palloc0(slots * sizeof(Datum *));
	r->nulls = palloc0(slots * sizeof(bool *));
	r->priv = palloc0(sizeof(struct WeirChunkReaderPrivate));
	r->priv->cxt = CurrentMemoryContext;
	r->priv->want = palloc0(slots);
	r->priv->nulls = palloc0(slots * sizeof(bool *));
	for (int i = 0; i < desc->natts; i++)
	{
		r->priv->want[i] = needed == NULL || bms_is_member(i + 1, needed);
		if (r->priv->want[i])
			r->values[i] = palloc(WEIR_CHUNK_MAX_ROWS * sizeof(Datum));
	}
	return r;
}

void
weir_chunk_reader_free(WeirChunkReader *r)
{
	for (int i = 0; i < r->desc->natts; i++)
	{
		if (r->values[i] != NULL)
			pfree(r->values[i]);
		if (r->priv->nulls[i] != NULL)
			pfree(r->priv->nulls[i]);
	}
	if (r->priv->copy != NULL)
		pfree(r->priv->copy);
	if (r->priv->raw != NULL)
		pfree(r->priv->raw);
	pfree(r->priv->nulls);
	pfree(r->priv->want);
	pfree(r->priv);
	pfree(r->values);
	pfree(r->nulls);
	bms_free(r->needed);
	pfree(r);
}

/* At least n bytes, whose old content may be lost. */
static char *
buffer_of(MemoryContext cxt, char **buffer, Size *size, Size n)
{
	if (*size < n)
	{
		if (*buffer != NULL)
			pfree(*buffer);
		*buffer = NULL;
		*size = 0;
		*buffer = MemoryContextAllocHuge(cxt, Max(n, 2 * BLCKSZ));
		*size = Max(n, 2 * BLCKSZ);
	}
	return *buffer;
}

/* The column's array of null flags, which the caller fills. */
static bool *
use_nulls(WeirChunkReader *r, int i)
{
	if (r->priv->nulls[i] == NULL)
		r->priv->nulls[i] =
			MemoryContextAlloc(r->priv->cxt, WEIR_CHUNK_MAX_ROWS);
	r->nulls[i] = r->priv->nulls[i];
	return r->nulls[i];
}

static void
fill_column(WeirChunkReader *r, int i, Datum value, bool isnull)
{
	for (int row = 0; row < r->nrows; row++)
		r->values[i][row] = value;
	if (isnull)
		memset(use_nulls(r, i), true, r->nrows);
	else
		r->nulls[i] = NULL;
}

/*
 * Bytes of a column of numbers after its bitmap; attlen out.
 */
static Size
numbers_size(ColumnKind kind, int16 attlen, int nvalues)
{
	switch (kind)
	{
		case KIND_DIST0:
			return attlen;
		case KIND_DIST1:
			return attlen + nvalues;
		case KIND_DIST2:
			return attlen + nvalues * sizeof(uint16);
		case KIND_DIST4:
			return attlen + nvalues * sizeof(uint32);
		default:
			return (Size) nvalues * attlen;
	}
}

static int64
get_number(const char *p, int16 attlen)
{
	int16 v2;
	int32 v4;
	int64 v8;

	switch (attlen)
	{
		case 1:
			return *(const int8 *) p;
		case 2:
			memcpy(&v2, p, sizeof(v2));
			return v2;
		case 4:
			memcpy(&v4, p, sizeof(v4));
			return v4;
		default:
			memcpy(&v8, p, sizeof(v8));
			return v8;
	}
}

/*
 * n numbers to values[0..n-1].  Sums wrap: damaged bytes that passed the
 * checksum give wrong numbers, nothing worse.  A narrow type's Datum is the
 * number cut to its width and extended again, as base and distance may be
 * anything.
 */
static void
get_numbers(Datum *values, const char *p, ColumnKind kind, int16 attlen, int n)
{
	uint64 base;

#define GET_LOOP(type, add)                               \
	for (int i = 0; i < n; i++)                           \
	{                                                     \
		type x;                                           \
		memcpy(&x, p + i * sizeof(x), sizeof(x));         \
		values[i] = (Datum) ((add) + (uint64) (int64) x); \
	}

	switch (kind)
	{
		case KIND_RAW1:
			GET_LOOP(int8, 0);
			return;
		case KIND_RAW2:
			GET_LOOP(int16, 0);
			return;
		case KIND_RAW4:
			GET_LOOP(int32, 0);
			return;
		case KIND_RAW8:
			memcpy(values, p, n * sizeof(Datum));
			return;
		default:
			break;
	}

	base = (uint64) get_number(p, attlen);
	p += attlen;
	switch (kind)
	{
		case KIND_DIST0:
			for (int i = 0; i < n; i++)
				values[i] = (Datum) base;
			break;
		case KIND_DIST1:
			GET_LOOP(uint8, base);
			break;
		case KIND_DIST2:
			GET_LOOP(uint16, base);
			break;
		default:
			GET_LOOP(uint32, base);
			break;
	}
#undef GET_LOOP
	if (attlen < (int16) sizeof(Datum))
	{
		for (int i = 0; i < n; i++)
			values[i] = (Datum) datum_number(values[i], attlen);
	}
}

/*
 * n by-reference values, pointing into the body; data is len bytes long and
 * begins where its alignment counts from (a multiple of 8).
 */
static void
get_byref(Datum *values, const char *data, Size len, Form_pg_attribute att,
		  int n)
{
	Size at = BYREF_LENGTH;

	for (int i = 0; i < n; i++)
	{
		Size size;

		check(at < len, "A column is shorter than its values.");
		if (att->attlen == -1)
		{
			if (data[at] == 0)
				at = att_align_nominal(at, att->attalign);
			check(at < len, "A column is shorter than its values.");
			if (VARATT_IS_1B_E(data + at))
				damaged("A value is stored elsewhere.");
			else if (VARATT_IS_1B(data + at))
				size = VARSIZE_1B(data + at);
			else
			{
				check(at == att_align_nominal(at, att->attalign) &&
						  at % sizeof(int32) == 0 && len - at >= VARHDRSZ,
					  "A value is not where it can be.");
				size = VARSIZE_4B(data + at);
				check(size >= (VARATT_IS_4B_C(data + at) ? VARHDRSZ_COMPRESSED
														 : VARHDRSZ),
					  "A value is shorter than its header.");
			}
			check(size >= 1, "A value is shorter than its header.");
		}
		else
		{
			at = att_align_nominal(at, att->attalign);
			check(at < len, "A column is shorter than its values.");
			if (att->attlen == -2)
				size = strnlen(data + at, len - at) + 1;
			else
				size = att->attlen;
		}
		check(size <= len - at, "A value goes beyond its column.");
		values[i] = PointerGetDatum(data + at);
		at += size;
	}
	check(at == len, "A column is longer than its values.");
}

/*
 * Spread n values, packed at the front, over the rows that are not null;
 * backwards, so that it can be done in place.
 */
static void
spread(Datum *values, const bool *nulls, int nrows, int n)
{
	for (int row = nrows - 1; row >= 0; row--)
		values[row] = nulls[row] ? (Datum) 0 : values[--n];
	Assert(n == 0);
}

/* attlen of the numbers of a kind, or 0 if the kind does not tell. */
static int16
kind_attlen(ColumnKind kind)
{
	switch (kind)
	{
		case KIND_RAW1:
			return 1;
		case KIND_RAW2:
			return 2;
		case KIND_RAW4:
			return 4;
		case KIND_RAW8:
			return 8;
		default:
			return 0;
	}
}

/*
 * Decode the columns that are wanted.
 */
static void
read_body(WeirChunkReader *r, const char *body, Size len, int natts)
{
	int nrows = r->nrows;
	Size bitmap = (nrows + 7) / 8;
	Size at = natts;

	check(at <= len, "It is shorter than its directory.");
	for (int i = 0; i < natts; i++)
	{
		uint8 byte = (uint8) body[i];
		ColumnKind kind = byte & ~KIND_HAS_NULLS;
		Form_pg_attribute att =
			i < r->desc->natts ? TupleDescAttr(r->desc, i) : NULL;
		bool want = att != NULL && r->priv->want[i];
		const uint8 *null_bits = NULL;
		int nvalues = nrows;
		Size size;

		if (byte == KIND_NULLS)
		{
			if (want)
				fill_column(r, i, (Datum) 0, true);
			continue;
		}
		check(kind >= KIND_DIST0 && kind <= KIND_BYREF,
			  "A column is of an unknown kind.");
		if (byte & KIND_HAS_NULLS)
		{
			check(len - at >= bitmap, "It is shorter than its columns.");
			null_bits = (const uint8 *) body + at;
			nvalues -= pg_popcount((const char *) null_bits, bitmap);
			check(nvalues > 0 && (nrows % 8 == 0 ||
								  (null_bits[bitmap - 1] >> (nrows % 8)) == 0),
				  "The nulls of a column are wrong.");
			at += bitmap;
		}

		/* the descriptor keeps a dropped column's length, so it can be passed */
		check(att != NULL, "It has more columns than its table.");
		check(kind == KIND_BYREF
				  ? !att->attbyval
				  : att->attbyval && (kind_attlen(kind) == 0 ||
									  kind_attlen(kind) == att->attlen),
			  "A column is not of its type's kind.");
		if (kind == KIND_BYREF)
		{
			uint32 data_len;

			at = MAXALIGN(at);
			check(at <= len && len - at >= BYREF_LENGTH,
				  "It is shorter than its columns.");
			memcpy(&data_len, body + at, sizeof(data_len));
			size = BYREF_LENGTH + (Size) data_len;
		}
		else
			size = numbers_size(kind, att->attlen, nvalues);
		check(size <= len - at, "It is shorter than its columns.");

		if (want && att->attisdropped)
			fill_column(r, i, (Datum) 0, true);
		else if (want)
		{
			if (kind == KIND_BYREF)
				get_byref(r->values[i], body + at, size, att, nvalues);
			else
				get_numbers(r->values[i], body + at, kind, att->attlen,
							nvalues);
			if (null_bits != NULL)
			{
				bool *nulls = use_nulls(r, i);

				for (int row = 0; row < nrows; row++)
					nulls[row] = (null_bits[row / 8] >> (row % 8)) & 1;
				spread(r->values[i], nulls, nrows, nvalues);
			}
			else
				r->nulls[i] = NULL;
		}
		at += size;
	}
	check(at == len, "It is longer than its columns.");
}

void
weir_chunk_reader_open(WeirChunkReader *r, const char *image, Size len)
{
	WeirChunkHeader header;
	Size head;
	const char *body;
	Size body_len;

	r->nrows = 0;
	chunk_type = r->desc->tdtypeid;
	head = read_header(image, len, &header);
	check((header.flags & WEIR_CHUNK_PIECE) == 0, "A piece is not a chunk.");
	check(EQ_CRC32C(image_crc(image, len), header.crc),
		  "Its checksum is wrong.");

	body = image + head;
	body_len = len - head;
	if (header.flags & WEIR_CHUNK_LZ4)
	{
		char *raw;

		check(header.raw_len <= LZ4_MAX_INPUT_SIZE &&
				  body_len <= LZ4_MAX_INPUT_SIZE,
			  "It is longer than LZ4 allows.");
		raw = buffer_of(r->priv->cxt, &r->priv->raw, &r->priv->raw_size,
						header.raw_len);
		check(LZ4_decompress_safe(body, raw, (int) body_len,
								  (int) header.raw_len) == header.raw_len,
			  "It cannot be decompressed.");
		body = raw;
		body_len = header.raw_len;
	}
	else
	{
		check(body_len == header.raw_len, "Its length is wrong.");
		if ((uintptr_t) body % MAXIMUM_ALIGNOF != 0)
		{
			char *copy = buffer_of(r->priv->cxt, &r->priv->copy,
								   &r->priv->copy_size, body_len);

			memcpy(copy, body, body_len);
			body = copy;
		}
	}

	r->nrows = header.nrows;
	if (r->nrows == 0)
		return;
	read_body(r, body, body_len, header.natts);

	/* columns added since, and not rewritten */
	for (int i = header.natts; i < r->desc->natts; i++)
	{
		Datum value;
		bool isnull;

		if (!r->priv->want[i])
			continue;
		value = getmissingattr(r->desc, i + 1, &isnull);
		fill_column(r, i, value, isnull);
	}
}

/*
 * The rows stay one chunk, however large that becomes.  The times are copied:
 * this file is not told which column is the event time.
 */
char *
weir_chunk_widen(WeirChunkReader *r, const char *image, Size len, Size *new_len)
{
	WeirChunkBuilder *b = weir_chunk_builder_create(r->desc, 0);
	WeirChunkHeader header;
	WeirRecord record;
	TimestampTz times[2];
	bool has_record =
		weir_chunk_peek(image, len, &times[0], &times[1], &record);
	Datum *values = palloc(Max(r->desc->natts, 1) * sizeof(Datum));
	bool *nulls = palloc(Max(r->desc->natts, 1));
	char *result;

	memcpy(&header, image, sizeof(header));
	weir_chunk_reader_open(r, image, len);
	for (int row = 0; row < r->nrows; row++)
	{
		for (int i = 0; i < r->desc->natts; i++)
		{
			values[i] = r->values[i][row];
			nulls[i] = r->nulls[i] != NULL && r->nulls[i][row];
		}
		(void) add_row(b, values, nulls, true);
	}
	result = build_image(b, header.xid, header.chunk_no,
						 (header.flags & WEIR_CHUNK_HAS_TIME) ? times : NULL,
						 has_record ? &record : NULL,
						 (header.flags & WEIR_CHUNK_LZ4) != 0, new_len);
	weir_chunk_builder_free(b);
	pfree(values);
	pfree(nulls);
	return result;
}
