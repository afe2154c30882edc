/*-------------------------------------------------------------------------
 *
 * runs.c
 *	  Summaries of runs of blocks of a stream's log, kept in weir.log_run.
 *
 * Most of a long log has been consumed, is too young to be trimmed and lies
 * outside of the span of time that a query asks for.  A summary says so of 8 MB
 * at a time.  It says what the blocks hold, not what somebody sees of it, and it
 * is made only of blocks whose tuples are all visible to everybody, so that this
 * makes no difference.
 *
 * When it is valid.  Every insert into a page and every delete clears the page's
 * bit in the visibility map; VACUUM alone sets it, which gives the map's page a
 * new LSN, in recovery too.  So, if all bits of a run are set and the map's page
 * has the LSN it had when the summary was made, which was then the case too, no
 * page of the run has changed between.  Nobody needs to be told when a run
 * changes, and a row that is out of date does no harm.  An unlogged stream's
 * map has no LSN: it has no summaries.  (In the minor releases of 17 and 18 since
 * 17.11 and 18.5 an insert or a delete that clears a bit gives the map's page its
 * LSN, too: there it makes all summaries of the page's 255 MB invalid, which is
 * more than need be, and right.)
 *
 * A summary that is valid when a scan begins is right for the scan's snapshot if
 * that was taken before: what the snapshot shows was on the page when it was
 * taken, and stays there while it is held.
 *
 * Nobody may pass over runs with records of prepared transactions and those that
 * give them their numbers (ADOPT), which have to be seen together (log.c), and
 * runs with very many open transactions.  Their rows say that they are opaque, so
 * that nobody tries again.
 *
 * Open are transactions that have written into the run, but of which the record
 * or another chunk is elsewhere: who has met some of such a transaction's
 * chunks elsewhere and wants it whole has to read the run after all.
 *
 * Format.  One row a run: (stream, first_block), the file it is of, blocks, the
 * LSN, the fields of WeirRun, and a CRC-32C of all that: with a number or a time
 * that is wrong somebody would pass over events that he wants, and nobody would
 * notice.  A row of another file, of another length of runs or with a wrong
 * checksum is as if it were not there; who makes summaries removes it.
 *
 * Locks: who makes summaries holds ShareUpdateExclusiveLock on the stream, so
 * that there is one at a time and no VACUUM meanwhile; who reads them any lock.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/stratnum.h"
#include "access/table.h"
#include "access/visibilitymap.h"
#include "catalog/indexing.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "port/pg_crc32c.h"
#include "storage/bufmgr.h"
#include "utils/array.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/pg_lsn.h"
#include "utils/rel.h"

#include "catalog.h"
#include "compat.h"
#include "debug.h"
#include "runs.h"

/* Heap blocks of one page of the visibility map. */
#define MAP_BLOCKS                                               \
	((BLCKSZ - MAXALIGN(SizeOfPageHeaderData)) * BITS_PER_BYTE / \
	 BITS_PER_HEAPBLOCK)

/* Columns of weir.log_run */
enum
{
	Anum_run_stream = 1,
	Anum_run_first_block,
	Anum_run_filenumber,
	Anum_run_blocks,
	Anum_run_vm_lsn,
	Anum_run_opaque,
	Anum_run_max_number,
	Anum_run_min_number,
	Anum_run_min_arrival,
	Anum_run_max_arrival,
	Anum_run_min_time,
	Anum_run_max_time,
	Anum_run_chunks,
	Anum_run_events,
	Anum_run_bytes,
	Anum_run_watermark,
	Anum_run_watermark_number,
	Anum_run_watermark_arrival,
	Anum_run_watermark_kind,
	Anum_run_checksum,
	Anum_run_open,
	Natts_run = Anum_run_open
};

static int
run_length(BlockNumber first)
{
	return Min(WEIR_RUN_BLOCKS, MAP_BLOCKS - first % MAP_BLOCKS);
}

/*
 * The LSN of the visibility map if it says that everything in these blocks is
 * visible to all; else InvalidXLogRecPtr.  *vmbuffer: InvalidBuffer at first; the
 * caller releases it.
 */
static XLogRecPtr
visible_lsn(Relation rel, BlockNumber first, int blocks, Buffer *vmbuffer)
{
	/* two bits a block, the lower one says all-visible; a run, a multiple of
	 * eight blocks, is a call for each of its blocks otherwise */
	const uint16 all_visible = 0x5555;
	const char *bits;
	XLogRecPtr lsn;

	StaticAssertStmt(VISIBILITYMAP_ALL_VISIBLE == 1 &&
						 BITS_PER_HEAPBLOCK == 2 && WEIR_RUN_BLOCKS % 8 == 0 &&
						 MAP_BLOCKS % 8 == 0,
					 "the visibility map is not as it was");
	/* pins the map's page, if there is one */
	if (!(visibilitymap_get_status(rel, first, vmbuffer) &
		  VISIBILITYMAP_ALL_VISIBLE))
		return InvalidXLogRecPtr;
	/* bits and LSN change under the exclusive lock */
	LockBuffer(*vmbuffer, BUFFER_LOCK_SHARE);
	lsn = PageGetLSN(BufferGetPage(*vmbuffer));
	bits = PageGetContents(BufferGetPage(*vmbuffer)) + first % MAP_BLOCKS / 4;
	for (int i = 0; i < blocks / 4; i += sizeof(uint16))
	{
		uint16 eight;

		memcpy(&eight, bits + i, sizeof(eight));
		if ((eight & all_visible) != all_visible)
		{
			lsn = InvalidXLogRecPtr;
			break;
		}
	}
	LockBuffer(*vmbuffer, BUFFER_LOCK_UNLOCK);
	return lsn;
}

/*
 * May a summary be out of date and look valid?  What WAL summaries miss, an
 * incremental backup restores as it was in the backup before: pages of the map
 * whose bits were cleared (in servers where an insert does not register them)
 * come back with their bits and their LSN, beside rows of weir.log_run that fit.
 * And who passes over a page does not notice that his snapshot is too old.
 */
static bool
cannot_be_trusted(void)
{
	return weir_wal_is_summarized() || weir_snapshots_expire();
}

/* Of what a row of this stream and this file holds; open: its last column. */
static int32
run_checksum(Relation rel, const WeirRun *run, Datum open)
{
	Oid stream = RelationGetRelid(rel);
	RelFileNumber filenumber = weir_rel_number(rel);
	const char *array = DatumGetPointer(open);
	pg_crc32c crc;

#define ADD(field) COMP_CRC32C(crc, &(field), sizeof(field))
	INIT_CRC32C(crc);
	ADD(stream);
	ADD(filenumber);
	ADD(run->first);
	ADD(run->blocks);
	ADD(run->lsn);
	ADD(run->opaque);
	ADD(run->max_number);
	ADD(run->min_number);
	ADD(run->min_arrival);
	ADD(run->max_arrival);
	ADD(run->min_time);
	ADD(run->max_time);
	ADD(run->nchunks);
	ADD(run->nrows);
	ADD(run->nbytes);
	ADD(run->watermark);
	ADD(run->watermark_number);
	ADD(run->watermark_arrival);
	ADD(run->watermark_kind);
	COMP_CRC32C(crc, VARDATA_ANY(array), VARSIZE_ANY_EXHDR(array));
	FIN_CRC32C(crc);
#undef ADD
	return (int32) crc;
}

/*
 * Is the length of the last column what it can be?  The row is too short for it
 * to be compressed or kept elsewhere.
 */
static bool
open_is_in_tuple(Datum open, HeapTuple tuple)
{
	const char *p = DatumGetPointer(open);

	return p < (const char *) tuple->t_data + tuple->t_len &&
		   !VARATT_IS_EXTERNAL(p) && !VARATT_IS_COMPRESSED(p) &&
		   (Size) VARSIZE_ANY(p) <=
			   (Size) ((const char *) tuple->t_data + tuple->t_len - p) &&
		   VARSIZE_ANY(p) >= (VARATT_IS_SHORT(p) ? VARHDRSZ_SHORT : VARHDRSZ);
}

static void
open_from_array(WeirRun *run, Datum value)
{
	ArrayType *array = DatumGetArrayTypeP(value);
	Datum *elements;
	int n;

	Ensure(!array_contains_nulls(array) && ARR_ELEMTYPE(array) == INT8OID,
		   "weir.log_run has an open transaction that is null");
	deconstruct_array(array, INT8OID, sizeof(int64), FLOAT8PASSBYVAL,
					  TYPALIGN_DOUBLE, &elements, NULL, &n);
	run->nopen = n;
	run->open = palloc(Max(n, 1) * sizeof(FullTransactionId));
	for (int i = 0; i < n; i++)
		run->open[i] =
			FullTransactionIdFromU64((uint64) DatumGetInt64(elements[i]));
	pfree(elements);
}

/* False: the row is of another file or another build, or damaged. */
static bool
run_from_tuple(WeirRun *run, Relation rel, HeapTuple tuple, TupleDesc desc)
{
	Datum values[Natts_run];
	bool nulls[Natts_run];
	int64 first;

	heap_deform_tuple(tuple, desc, values, nulls);
	for (int i = 0; i < Natts_run; i++)
		if (nulls[i])
			return false;
	memset(run, 0, sizeof(*run));
	first = DatumGetInt64(values[Anum_run_first_block - 1]);
	run->first = (BlockNumber) first;
	run->blocks = DatumGetInt32(values[Anum_run_blocks - 1]);
	if (DatumGetObjectId(values[Anum_run_filenumber - 1]) !=
			weir_rel_number(rel) ||
		first < 0 || first > MaxBlockNumber ||
		(run->first % MAP_BLOCKS) % WEIR_RUN_BLOCKS != 0 ||
		run->blocks != run_length(run->first))
		return false;
	run->lsn = DatumGetLSN(values[Anum_run_vm_lsn - 1]);
	run->opaque = DatumGetBool(values[Anum_run_opaque - 1]);
	run->max_number =
		(WeirNumber) DatumGetInt64(values[Anum_run_max_number - 1]);
	run->min_number =
		(WeirNumber) DatumGetInt64(values[Anum_run_min_number - 1]);
	run->min_arrival = DatumGetTimestampTz(values[Anum_run_min_arrival - 1]);
	run->max_arrival = DatumGetTimestampTz(values[Anum_run_max_arrival - 1]);
	run->min_time = DatumGetInt64(values[Anum_run_min_time - 1]);
	run->max_time = DatumGetInt64(values[Anum_run_max_time - 1]);
	run->nchunks = (uint64) DatumGetInt64(values[Anum_run_chunks - 1]);
	run->nrows = (uint64) DatumGetInt64(values[Anum_run_events - 1]);
	run->nbytes = (uint64) DatumGetInt64(values[Anum_run_bytes - 1]);
	run->watermark = DatumGetTimestampTz(values[Anum_run_watermark - 1]);
	run->watermark_number =
		(WeirNumber) DatumGetInt64(values[Anum_run_watermark_number - 1]);
	run->watermark_arrival =
		DatumGetTimestampTz(values[Anum_run_watermark_arrival - 1]);
	run->watermark_kind = DatumGetInt32(values[Anum_run_watermark_kind - 1]);
	if (!open_is_in_tuple(values[Anum_run_open - 1], tuple) ||
		DatumGetInt32(values[Anum_run_checksum - 1]) !=
			run_checksum(rel, run, values[Anum_run_open - 1]))
		return false;
	open_from_array(run, values[Anum_run_open - 1]);
	return true;
}

static void
key_stream(ScanKey key, Oid stream)
{
	ScanKeyInit(key, Anum_run_stream, BTEqualStrategyNumber, F_OIDEQ,
				ObjectIdGetDatum(stream));
}

static WeirRuns *
load_valid(Relation rel, bool opaque_too)
{
	WeirRuns *result = palloc0(sizeof(WeirRuns));
	BlockNumber nblocks = RelationGetNumberOfBlocks(rel);
	Buffer vmbuffer = InvalidBuffer;
	Relation table;
	Relation index;
	SysScanDesc scan;
	ScanKeyData key;
	HeapTuple tuple;
	int space;

	if (nblocks < WEIR_RUN_BLOCKS || !RelationNeedsWAL(rel) ||
		cannot_be_trusted())
		return result;
	space = nblocks / WEIR_RUN_BLOCKS + 1;
	result->runs = palloc_extended(space * sizeof(WeirRun), MCXT_ALLOC_HUGE);
	table = weir_catalog_open("log_run", Natts_run, AccessShareLock);
	index = index_open(weir_catalog_table("log_run_pkey"), AccessShareLock);
	key_stream(&key, RelationGetRelid(rel));
	scan = systable_beginscan_ordered(table, index, NULL, 1, &key);
	while (HeapTupleIsValid(
		tuple = systable_getnext_ordered(scan, ForwardScanDirection)))
	{
		WeirRun run;

		CHECK_FOR_INTERRUPTS();
		if (!run_from_tuple(&run, rel, tuple, RelationGetDescr(table)) ||
			(run.opaque && !opaque_too) || run.first + run.blocks > nblocks ||
			XLogRecPtrIsInvalid(run.lsn) ||
			visible_lsn(rel, run.first, run.blocks, &vmbuffer) != run.lsn)
			continue;
		if (result->n == space)
		{
			space *= 2;
			result->runs = repalloc_huge(result->runs, space * sizeof(WeirRun));
		}
		result->runs[result->n++] = run;
	}
	systable_endscan_ordered(scan);
	index_close(index, AccessShareLock);
	table_close(table, AccessShareLock);
	if (BufferIsValid(vmbuffer))
		ReleaseBuffer(vmbuffer);
	return result;
}

WeirRuns *
weir_runs_load(Relation rel)
{
	return load_valid(rel, false);
}

int
weir_runs_compare_numbers(const void *a, const void *b)
{
	WeirNumber x = (*(WeirRun *const *) a)->min_number;
	WeirNumber y = (*(WeirRun *const *) b)->min_number;

	return (x > y) - (x < y);
}

void
weir_runs_free(WeirRuns *runs)
{
	for (int i = 0; i < runs->n; i++)
		pfree(runs->runs[i].open);
	if (runs->runs)
		pfree(runs->runs);
	pfree(runs);
}

/* Rows of files, or parts of them, that are no more, and damaged ones. */
static void
remove_useless(Relation rel, BlockNumber nblocks)
{
	Relation table = weir_catalog_open("log_run", Natts_run, RowExclusiveLock);
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple tuple;

	key_stream(&key, RelationGetRelid(rel));
	scan = systable_beginscan(table, weir_catalog_table("log_run_pkey"), true,
							  NULL, 1, &key);
	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		WeirRun run;

		if (!run_from_tuple(&run, rel, tuple, RelationGetDescr(table)) ||
			run.first + run.blocks > nblocks)
			CatalogTupleDelete(table, &tuple->t_self);
	}
	systable_endscan(scan);
	table_close(table, NoLock);
	CommandCounterIncrement();
}

List *
weir_runs_wanted(Relation rel)
{
	BlockNumber nblocks = RelationGetNumberOfBlocks(rel);
	List *result = NIL;
	WeirRuns *valid;
	Buffer vmbuffer = InvalidBuffer;
	int i = 0;
	uint64 first = 0;

	if (!RelationNeedsWAL(rel))
		return NIL;
	if (cannot_be_trusted())
	{
		/* nor later, when the setting has been changed */
		remove_useless(rel, 0);
		return NIL;
	}
	remove_useless(rel, nblocks);
	valid = load_valid(rel, true);
	while (first + run_length((BlockNumber) first) <= nblocks)
	{
		WeirRun run = {.first = (BlockNumber) first,
					   .blocks = run_length((BlockNumber) first)};

		CHECK_FOR_INTERRUPTS();
		first += run.blocks;
		if (i < valid->n && valid->runs[i].first == run.first)
		{
			i++;
			continue;
		}
		if (!XLogRecPtrIsInvalid(
				visible_lsn(rel, run.first, run.blocks, &vmbuffer)))
			result =
				lappend(result, memcpy(palloc(sizeof(run)), &run, sizeof(run)));
	}
	if (BufferIsValid(vmbuffer))
		ReleaseBuffer(vmbuffer);
	return result;
}

int64
weir_runs_map_page(const WeirRun *run)
{
	return run->first / MAP_BLOCKS;
}

bool
weir_runs_look(Relation rel, WeirRun *run)
{
	Buffer vmbuffer = InvalidBuffer;

	run->lsn = visible_lsn(rel, run->first, run->blocks, &vmbuffer);
	if (BufferIsValid(vmbuffer))
		ReleaseBuffer(vmbuffer);
	return !XLogRecPtrIsInvalid(run->lsn);
}

bool
weir_runs_unchanged(Relation rel, const WeirRun *run)
{
	WeirRun now = *run;

	return weir_runs_look(rel, &now) && now.lsn == run->lsn;
}

static Datum
open_to_array(const WeirRun *run)
{
	Datum *elements = palloc(Max(run->nopen, 1) * sizeof(Datum));

	for (int i = 0; i < run->nopen; i++)
		elements[i] =
			Int64GetDatum((int64) U64FromFullTransactionId(run->open[i]));
	return PointerGetDatum(construct_array(elements, run->nopen, INT8OID,
										   sizeof(int64), FLOAT8PASSBYVAL,
										   TYPALIGN_DOUBLE));
}

void
weir_runs_put(Relation rel, const WeirRun *run)
{
	Relation table = weir_catalog_open("log_run", Natts_run, RowExclusiveLock);
	Datum values[Natts_run];
	bool nulls[Natts_run] = {false};
	ScanKeyData keys[2];
	SysScanDesc scan;
	HeapTuple old;
	HeapTuple tuple;

	values[Anum_run_stream - 1] = ObjectIdGetDatum(RelationGetRelid(rel));
	values[Anum_run_first_block - 1] = Int64GetDatum((int64) run->first);
	values[Anum_run_filenumber - 1] = ObjectIdGetDatum(weir_rel_number(rel));
	values[Anum_run_blocks - 1] = Int32GetDatum(run->blocks);
	values[Anum_run_vm_lsn - 1] = LSNGetDatum(run->lsn);
	values[Anum_run_opaque - 1] = BoolGetDatum(run->opaque);
	values[Anum_run_max_number - 1] = Int64GetDatum((int64) run->max_number);
	values[Anum_run_min_number - 1] = Int64GetDatum((int64) run->min_number);
	values[Anum_run_min_arrival - 1] = TimestampTzGetDatum(run->min_arrival);
	values[Anum_run_max_arrival - 1] = TimestampTzGetDatum(run->max_arrival);
	values[Anum_run_min_time - 1] = Int64GetDatum(run->min_time);
	values[Anum_run_max_time - 1] = Int64GetDatum(run->max_time);
	values[Anum_run_chunks - 1] = Int64GetDatum((int64) run->nchunks);
	values[Anum_run_events - 1] = Int64GetDatum((int64) run->nrows);
	values[Anum_run_bytes - 1] = Int64GetDatum((int64) run->nbytes);
	values[Anum_run_watermark - 1] = TimestampTzGetDatum(run->watermark);
	values[Anum_run_watermark_number - 1] =
		Int64GetDatum((int64) run->watermark_number);
	values[Anum_run_watermark_arrival - 1] =
		TimestampTzGetDatum(run->watermark_arrival);
	values[Anum_run_watermark_kind - 1] = Int32GetDatum(run->watermark_kind);
	values[Anum_run_open - 1] = open_to_array(run);
	values[Anum_run_checksum - 1] =
		Int32GetDatum(run_checksum(rel, run, values[Anum_run_open - 1]));

	tuple = heap_form_tuple(RelationGetDescr(table), values, nulls);
	key_stream(&keys[0], RelationGetRelid(rel));
	ScanKeyInit(&keys[1], Anum_run_first_block, BTEqualStrategyNumber, F_INT8EQ,
				Int64GetDatum((int64) run->first));
	scan = systable_beginscan(table, weir_catalog_table("log_run_pkey"), true,
							  NULL, 2, keys);
	old = systable_getnext(scan);
	if (HeapTupleIsValid(old))
		CatalogTupleUpdate(table, &old->t_self, tuple);
	else
		CatalogTupleInsert(table, tuple);
	systable_endscan(scan);
	table_close(table, NoLock);
	CommandCounterIncrement();
	weir_debug_point("run-put");
}
