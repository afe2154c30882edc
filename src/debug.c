/*-------------------------------------------------------------------------
 *
 * debug.c
 *	  Debug points: a test names a point of the code, and what happens there.
 *	  Empty in the build that ships.
 *
 * The syntax and the actions are described in debug.h.  Hits are counted in
 * each process from the moment it first meets a new value of the setting, and
 * only for points the setting names; so "@N" means the N-th hit since then.
 *
 * Nothing here allocates, so that a critical point may stand in a place where
 * that is forbidden.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "debug.h"

#ifdef WEIR_DEBUG

#include <ctype.h>
#include <signal.h>
#include <unistd.h>

#include "common/hashfn.h"
#include "guc.h"
#include "miscadmin.h"
#include "storage/lock.h"
#include "storage/lockdefs.h"
#include "storage/proc.h"

#define DEBUG_LOCK_CLASS 1465207378 /* "WEIR" */
#define MAX_TEXT		 1024
#define MAX_POINTS		 32

/* The setting as last seen, and the hits of its entries, in its order. */
static char seen[MAX_TEXT];
static int hits[MAX_POINTS];

/*
 * Find the entry of a point.  True if its action is due: *action is then
 * where its word starts in the setting, *len its length.
 */
static bool
action_due(const char *name, const char **action, size_t *len)
{
	const char *p = weir_debug_points;
	size_t namelen = strlen(name);

	if (p == NULL || *p == '\0')
		return false;
	if (strncmp(p, seen, MAX_TEXT - 1) != 0)
	{
		strlcpy(seen, p, MAX_TEXT);
		memset(hits, 0, sizeof(hits));
	}

	for (int i = 0; i < MAX_POINTS; i++)
	{
		const char *end;
		const char *word;
		long nth = 0;

		while (*p == ',' || isspace((unsigned char) *p))
			p++;
		if (*p == '\0')
			return false;
		end = p + strcspn(p, ",");

		if (strncmp(p, name, namelen) == 0 && p[namelen] == '=')
		{
			word = p + namelen + 1;
			*action = word;
			*len = strspn(word, "abcdefghijklmnopqrstuvwxyz");
			if (word[*len] == '@')
				nth = strtol(word + *len + 1, NULL, 10);
			hits[i]++;
			if (nth == 0 || nth == hits[i])
				return true;
			/* the same point may be listed for another hit, too */
		}
		p = end;
	}
	return false;
}

static bool
is_word(const char *action, size_t len, const char *word)
{
	return len == strlen(word) && strncmp(action, word, len) == 0;
}

/*
 * Stand still until nobody holds the point's advisory lock exclusively.  A
 * session lock, as a worker may come here outside a transaction.
 */
static void
wait_for_lock(const char *name)
{
	LOCKTAG tag;
	int save_timeout = LockTimeout;
	uint32 key = hash_bytes((const unsigned char *) name, strlen(name));

	SET_LOCKTAG_ADVISORY(tag, MyDatabaseId, DEBUG_LOCK_CLASS, key, 2);
	/* the worker's is short */
	LockTimeout = 0;
	PG_TRY();
	{
		(void) LockAcquire(&tag, ShareLock, true, false);
		(void) LockRelease(&tag, ShareLock, true);
	}
	PG_FINALLY();
	{
		LockTimeout = save_timeout;
	}
	PG_END_TRY();
}

/* Into the log without its means; what passes may not be worth a line of it. */
static void
say(const char *name, const char *what)
{
	char line[128];
	int len =
		snprintf(line, sizeof(line), "debug point \"%s\" %s\n", name, what);

	if (write(STDERR_FILENO, line, Min(len, (int) sizeof(line) - 1)) < 0)
		return;
}

/* Give others the time to do what they should not be able to do meanwhile. */
static void
sleep_a_little(const char *name)
{
	say(name, "sleeps");
	pg_usleep(200 * 1000);
}

/* Who finds the signal in the log also finds who has sent it. */
static void
kill_myself(const char *name)
{
	say(name, "kills");
	kill(getpid(), SIGKILL);
}

void
weir_debug_point(const char *name)
{
	const char *action;
	size_t len;

	if (!action_due(name, &action, &len))
		return;

	if (is_word(action, len, "error"))
		ereport(ERROR, (errcode(ERRCODE_INTERNAL_ERROR),
						errmsg("debug point \"%s\" raised an error", name)));
	else if (is_word(action, len, "cancel"))
	{
		say(name, "cancels");
		ereport(ERROR,
				(errcode(ERRCODE_QUERY_CANCELED),
				 errmsg("debug point \"%s\" cancelled the statement", name)));
	}
	else if (is_word(action, len, "memory"))
		ereport(ERROR,
				(errcode(ERRCODE_OUT_OF_MEMORY), errmsg("out of memory")));
	else if (is_word(action, len, "fatal"))
		ereport(FATAL, (errcode(ERRCODE_INTERNAL_ERROR),
						errmsg("debug point \"%s\" ended the process", name)));
	else if (is_word(action, len, "kill"))
		kill_myself(name);
	else if (is_word(action, len, "sleep"))
		sleep_a_little(name);
	else if (is_word(action, len, "wait"))
		wait_for_lock(name);
	else
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("debug point \"%s\" has an unknown action", name)));
}

void
weir_debug_point_critical(const char *name)
{
	const char *action;
	size_t len;

	if (!action_due(name, &action, &len))
		return;
	if (is_word(action, len, "kill"))
		kill_myself(name);
	else if (is_word(action, len, "sleep"))
		sleep_a_little(name);
	else if (is_word(action, len, "fatal"))
		ereport(FATAL, (errcode(ERRCODE_INTERNAL_ERROR),
						errmsg("debug point \"%s\" ended the process", name)));
}

#endif /* WEIR_DEBUG */
