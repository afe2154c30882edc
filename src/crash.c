/*-------------------------------------------------------------------------
 *
 * crash.c
 *	  A trace, kept over crashes, of workers that crash the server soon after
 *	  their start.
 *
 * A crash resets shared memory and starts all processes anew, so a worker that
 * crashes in the same place each time (user code in C, memory that runs out)
 * would restart the server without pause.  The trace is a file per worker,
 * pg_stat/pg_weir.DATABASE.INDEX: a decimal number, how many times in
 * succession it has been started and not got through.
 *
 * absent -> 1 -> 2 ...	by the launcher, before it starts the worker
 * any -> absent		by the worker, when it has got through or ends, in
 *						whatever order: also in its handler of SIGQUIT, by
 *						which it is told that another process has crashed
 *
 * So the file that a new launcher finds was left by a worker that was the cause
 * of the crash, or by an outage of the machine.  It is a hint that no data
 * depend on: it is not synced, and what cannot be read counts as absent.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

#include "pgstat.h"
#include "storage/fd.h"

#include "crash.h"

/* Ours, while it is there. */
static char my_trace[MAXPGPATH];
static volatile sig_atomic_t watching = false;

static void
trace_path(char *path, Oid db, int index)
{
	snprintf(path, MAXPGPATH, "%s/pg_weir.%u.%d",
			 PGSTAT_STAT_PERMANENT_DIRECTORY, db, index);
}

int
weir_crash_count(Oid db, int index)
{
	char path[MAXPGPATH];
	char text[16] = "";
	ssize_t len;
	int fd;

	trace_path(path, db, index);
	fd = OpenTransientFile(path, O_RDONLY | PG_BINARY);
	if (fd < 0)
		return 0;
	len = read(fd, text, sizeof(text) - 1);
	CloseTransientFile(fd);
	return len > 0 ? Max(0, atoi(text)) : 0;
}

void
weir_crash_begin(Oid db, int index, int count)
{
	char path[MAXPGPATH];
	char text[16];
	int len = snprintf(text, sizeof(text), "%d\n", Min(count, 1000000) + 1);
	int fd;

	trace_path(path, db, index);
	fd = OpenTransientFile(path, O_CREAT | O_WRONLY | O_TRUNC | PG_BINARY);
	if (fd < 0 || write(fd, text, len) != len)
		ereport(LOG, (errcode_for_file_access(),
					  errmsg("could not write file \"%s\": %m", path)));
	if (fd >= 0)
		CloseTransientFile(fd);
}

static void
handle_sigquit(SIGNAL_ARGS)
{
	/* as SignalHandlerForCrashExit: shared memory may be corrupt */
	weir_crash_end();
	_exit(2);
}

void
weir_crash_watch(Oid db, int index)
{
	trace_path(my_trace, db, index);
	watching = true;
	pqsignal(SIGQUIT, handle_sigquit);
}

/* Also called by a signal handler. */
void
weir_crash_end(void)
{
	if (watching)
		(void) unlink(my_trace);
	watching = false;
}

void
weir_crash_forget(Oid db, int index)
{
	char path[MAXPGPATH];

	trace_path(path, db, index);
	(void) unlink(path);
}
