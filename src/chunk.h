/*-------------------------------------------------------------------------
 *
 * chunk.h
 *	  The encoding of some rows as one chunk: column order, versioned,
 *	  optionally compressed.  Pure: knows no relation, no buffer, no WAL.
 *	  The format, byte by byte, is in the head of chunk.c.
 *
 * A chunk image starts with WeirChunkHeader (which is also a varlena, so that
 * the image is the only attribute of the heap tuple that stores it) followed
 * by the column data.  Images longer than WEIR_CHUNK_MAX are cut into pieces
 * by log.c; chunk.c never sees a piece.
 *
 *-------------------------------------------------------------------------
 */
#ifndef WEIR_CHUNK_H
#define WEIR_CHUNK_H

#include "pg_weir.h"

#include "access/htup_details.h"
#include "access/tupdesc.h"
#include "nodes/bitmapset.h"

#define WEIR_CHUNK_FORMAT 1

/* The longest image that a heap tuple of one page can hold. */
#define WEIR_CHUNK_MAX (MaxHeapTupleSize - MAXALIGN(SizeofHeapTupleHeader))

/* At most so many rows, so that (line pointer, row) fits a TID's 16 bits. */
#define WEIR_CHUNK_MAX_ROWS 255

/* WeirChunkHeader.flags */
#define WEIR_CHUNK_LZ4 0x01 /* body is compressed; raw_len tells */
#define WEIR_CHUNK_RECORD \
	0x02 /* last chunk of its transaction: a
									 * WeirRecord follows the header */
#define WEIR_CHUNK_PIECE \
	0x04						 /* continuation of a larger image (log.c);
									 * scans skip it */
#define WEIR_CHUNK_HAS_TIME 0x08 /* min_time/max_time are set */
#define WEIR_CHUNK_HAS_NEXT 0x10 /* image goes on in a piece (log.c) */

typedef struct WeirChunkHeader
{
	int32 vl_len_; /* varlena header of the stored bytes */
	uint8 format;  /* WEIR_CHUNK_FORMAT */
	uint8 flags;
	uint16 natts;		   /* columns of the table when written */
	FullTransactionId xid; /* top transaction that wrote it */
	uint32 chunk_no;	   /* order inside (transaction, stream); gaps
								 * are normal */
	uint16 nrows;		   /* 0..WEIR_CHUNK_MAX_ROWS */
	uint16 head_sum;	   /* CRC-16 of what a scan goes by: this header
								* without vl_len_, the times, the record */
	uint32 raw_len;		   /* bytes of the body before compression */
	uint32 crc;			   /* CRC-32C of everything after this field and
								 * of the fields before it, vl_len_ and
								 * head_sum excluded, and PIECE and HAS_NEXT
								 * taken as 0 */
	/* then: min_time, max_time (int64 each) if WEIR_CHUNK_HAS_TIME */
	/* then: WeirRecord if WEIR_CHUNK_RECORD */
	/* then: WeirPieceLink if WEIR_CHUNK_HAS_NEXT (log.c) */
	/* then: the body */
} WeirChunkHeader;

/*
 * What the last chunk of a transaction adds; makes it a record of the log.
 */
typedef struct WeirRecord
{
	WeirNumber number; /* WEIR_NO_NUMBER: prepared, its number is in
								 * the record that adopts it */
	TimestampTz arrival;
	TimestampTz watermark;	  /* or WEIR_NO_TIME */
	FullTransactionId adopts; /* a prepared transaction that gets this
								 * record's number, or Invalid */
	uint64 nrows;
	uint32 nchunks; /* chunks of this transaction in this stream
								 * that its commit makes visible, this one
								 * included */
	uint32 kind;	/* WeirRecordKind */
} WeirRecord;

typedef enum WeirRecordKind
{
	WEIR_RECORD_EVENTS = 1,	   /* ordinary transaction */
	WEIR_RECORD_HEARTBEAT = 2, /* weir.advance_watermark, no rows needed; if
								* there are rows, W is not theirs */
	WEIR_RECORD_IDLE = 3,	   /* idle_timeout */
	WEIR_RECORD_ADOPT = 4,	   /* gives a prepared transaction its number */
	WEIR_RECORD_KEPT = 5,	   /* W of records that retention removes */
	WEIR_RECORD_CLOCK = 6	   /* its arrival closes windows over now() */
} WeirRecordKind;

/* Length of header, times and record, without log.c's link. */
extern Size weir_chunk_head_length(const char *image);
/* What is stored ends with a seal; is it unbroken?  All of the head is there. */
extern void weir_chunk_seal_head(char *image);
extern bool weir_chunk_head_is_sealed(const char *image);

/* ---- building ---- */

typedef struct WeirChunkBuilder WeirChunkBuilder;

/*
 * A builder for rows of this descriptor, all memory in the current context
 * (freed by weir_chunk_builder_free).  event_attno: 0 = none; that column's
 * values (timestamptz or timestamp) give min/max time.
 */
extern WeirChunkBuilder *weir_chunk_builder_create(TupleDesc desc,
												   AttrNumber event_attno);
extern void weir_chunk_builder_free(WeirChunkBuilder *b);
extern int weir_chunk_builder_nrows(const WeirChunkBuilder *b);
extern TimestampTz weir_chunk_builder_max_time(const WeirChunkBuilder *b);

/*
 * Add a row.  External TOAST pointers and expanded objects must have been
 * flattened by the caller (weir_chunk_flatten does it).  Returns false, adding
 * nothing, if the row does not fit beside the rows already there: the caller
 * writes the chunk and tries again; a first row always fits.
 */
extern bool weir_chunk_builder_add(WeirChunkBuilder *b, const Datum *values,
								   const bool *nulls);

/*
 * Detoast external and expanded values in place (palloc in the current
 * context); true if anything changed.
 */
extern bool weir_chunk_flatten(TupleDesc desc, Datum *values, bool *nulls);

/* Row i of the pending rows (for AFTER triggers): fills values and nulls,
 * pointing into the builder. */
extern void weir_chunk_builder_get(const WeirChunkBuilder *b, int i,
								   Datum *values, bool *nulls);

/* Append all rows of src (same descriptor) if they fit; else false, nothing. */
extern bool weir_chunk_builder_merge(WeirChunkBuilder *dst,
									 WeirChunkBuilder *src);

/*
 * The finished image, palloc'd (huge allowed) in the current context, and the
 * builder emptied.  record may be NULL.  nrows may be 0 (records without
 * rows).  lz4: compress the body if that makes it shorter.
 * leave: bytes to leave unused after the header parts for log.c's link are
 * not needed here: log.c copies when it must cut.
 */
extern char *weir_chunk_builder_finish(WeirChunkBuilder *b,
									   FullTransactionId xid, uint32 chunk_no,
									   const WeirRecord *record, bool lz4,
									   Size *len);

/* ---- reading ---- */

/* Header fields of an image without decoding it; Ensure()s magic, lengths. */
extern bool weir_chunk_peek(const char *image, Size len, TimestampTz *min_time,
							TimestampTz *max_time,
							WeirRecord *record); /* true if it has a record */

/*
 * A decoder is made once per (descriptor, needed columns) and opened on one
 * image after another; decoded columns point into the image and into the
 * decoder's own memory, both must live as long as the values are used.
 * missing columns (natts < attno) come from the descriptor's missing values
 * or are null.  Every length is checked: a damaged image raises XX001, one of a
 * newer format 0A000; neither reads outside.
 */
typedef struct WeirChunkReader
{
	TupleDesc desc;
	Bitmapset *needed; /* attnos (1-based, no offset), NULL = all */
	int nrows;
	Datum **values; /* [attno-1] -> nrows Datums, NULL if not
								 * needed */
	bool **nulls;	/* [attno-1] -> nrows bools, NULL if the column
								 * has no null in this chunk */
	struct WeirChunkReaderPrivate *priv;
} WeirChunkReader;

extern WeirChunkReader *weir_chunk_reader_create(TupleDesc desc,
												 Bitmapset *needed);
extern void weir_chunk_reader_open(WeirChunkReader *r, const char *image,
								   Size len);
extern void weir_chunk_reader_free(WeirChunkReader *r);

/*
 * The image as it would be if its rows had been written with all columns of
 * the reader's descriptor, those added since at their missing values; all else
 * stays.  The reader wants all columns.  palloc'd (huge allowed) in the current
 * context.
 */
extern char *weir_chunk_widen(WeirChunkReader *r, const char *image, Size len,
							  Size *new_len);

#endif /* WEIR_CHUNK_H */
