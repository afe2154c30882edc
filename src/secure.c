/*-------------------------------------------------------------------------
 *
 * secure.c
 *	  The context in which a view's user code runs.
 *
 * Relies on the server: SECURITY_RESTRICTED_OPERATION refuses SET ROLE,
 * deferred triggers, WITH HOLD cursors and temporary tables, so nothing that
 * user code starts outlives weir_secure_leave.
 *
 * Guarantees: between enter and leave the current user is the view's owner,
 * names are looked up in pg_catalog and pg_temp only, and every setting that
 * can change what an expression returns has either the view's frozen value
 * (frozen_settings) or a fixed one (forced_settings).  What the owner, the
 * database or the reader has set elsewhere does not reach the view, and what
 * user code sets inside is undone by leave.
 *
 * The text of the frozen settings, kept in the view's reloption "settings":
 *
 *	name='value' name='value' ...
 *
 * names spelled as in frozen_settings, in any order; a quote in a value is
 * doubled, every other byte stands for itself.  The reloption can be written
 * by hand (pg_dump does), so that the text is not trusted: a name outside the
 * list is refused, and nothing in the list can be set only by a superuser.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <ctype.h>
#include <signal.h>

#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "postmaster/interrupt.h"
#include "utils/guc.h"

#include "secure.h"

/* Frozen at CREATE: what the result of a STABLE function may depend on. */
static const char *const frozen_settings[] = {
	"TimeZone",		"timezone_abbreviations",
	"DateStyle",	"IntervalStyle",
	"lc_monetary",	"lc_numeric",
	"lc_time",		"extra_float_digits",
	"bytea_output", "default_text_search_config",
	"xmloption",	"xmlbinary"};

/*
 * The same for all views: what nobody would want to differ, but a hostile or
 * careless ALTER ROLE could make differ.
 */
static const struct
{
	const char *name;
	const char *value;
} forced_settings[] = {{"search_path", "pg_catalog, pg_temp"},
					   {"row_security", "on"},
					   {"standard_conforming_strings", "on"},
					   {"backslash_quote", "safe_encoding"},
					   {"transform_null_equals", "off"},
					   {"array_nulls", "on"},
					   {"quote_all_identifiers", "off"},
					   {"restrict_nonsystem_relation_kind", ""},
					   {"session_replication_role", "origin"}};

/*
 * Set for the current nest level.  A value that already holds is left alone:
 * the check hooks of some settings read files, and this runs once a batch.
 */
static void
set_for_level(const char *name, const char *value)
{
	const char *current = GetConfigOption(name, true, false);

	if (current != NULL && strcmp(current, value) == 0)
		return;
	(void) set_config_option(name, value, PGC_SUSET, PGC_S_SESSION,
							 GUC_ACTION_SAVE, true, 0, false);
}

static void
bad_settings(const char *settings, const char *at)
{
	ereport(
		ERROR,
		(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
		 errmsg("invalid value of option \"settings\""),
		 errdetail("The text cannot be read from \"%s\" on.", at),
		 errhint("Leave this option as CREATE MATERIALIZED VIEW made it.")));
}

/*
 * Apply the text of weir_secure_freeze.
 */
static void
apply_frozen(const char *settings)
{
	const char *p = settings;
	char *value = palloc(strlen(settings) + 1);

	for (;;)
	{
		const char *start;
		const char *name = NULL;
		char *v = value;
		size_t len;

		while (isspace((unsigned char) *p))
			p++;
		if (*p == '\0')
			break;

		start = p;
		len = strcspn(p, "=");
		for (int i = 0; i < lengthof(frozen_settings); i++)
		{
			if (strlen(frozen_settings[i]) == len &&
				pg_strncasecmp(frozen_settings[i], p, len) == 0)
				name = frozen_settings[i];
		}
		p += len;
		if (name == NULL || p[0] != '=' || p[1] != '\'')
			bad_settings(settings, start);

		p += 2;
		for (;;)
		{
			if (*p == '\0')
				bad_settings(settings, start);
			if (*p == '\'' && *++p != '\'')
				break;
			*v++ = *p++;
		}
		*v = '\0';
		set_for_level(name, value);
	}
	pfree(value);
}

void
weir_secure_enter(WeirSecure *s, Oid owner, const char *settings)
{
	Assert(OidIsValid(owner));

	GetUserIdAndSecContext(&s->save_user, &s->save_context);
	SetUserIdAndSecContext(owner,
						   s->save_context | SECURITY_RESTRICTED_OPERATION);
	s->nest_level = NewGUCNestLevel();

	for (int i = 0; i < lengthof(forced_settings); i++)
	{
		/* not every server has all of them */
		if (GetConfigOption(forced_settings[i].name, true, false) != NULL)
			set_for_level(forced_settings[i].name, forced_settings[i].value);
	}
	if (settings != NULL)
		apply_frozen(settings);
}

/*
 * Idempotent, so that cleanup code need not know how far it came.
 */
void
weir_secure_leave(WeirSecure *s)
{
	if (s->nest_level == 0)
		return;
	AtEOXact_GUC(false, s->nest_level);
	s->nest_level = 0;
	SetUserIdAndSecContext(s->save_user, s->save_context);
}

char *
weir_secure_freeze(const char *given)
{
	StringInfoData buf;
	int nest_level = 0;

	if (given != NULL)
	{
		nest_level = NewGUCNestLevel();
		apply_frozen(given);
	}
	initStringInfo(&buf);
	for (int i = 0; i < lengthof(frozen_settings); i++)
	{
		const char *value = GetConfigOption(frozen_settings[i], false, false);

		if (buf.len > 0)
			appendStringInfoChar(&buf, ' ');
		appendStringInfo(&buf, "%s='", frozen_settings[i]);
		for (const char *c = value ? value : ""; *c != '\0'; c++)
		{
			if (*c == '\'')
				appendStringInfoChar(&buf, '\'');
			appendStringInfoChar(&buf, *c);
		}
		appendStringInfoChar(&buf, '\'');
	}
	if (given != NULL)
		AtEOXact_GUC(false, nest_level);
	return buf.data;
}

static volatile sig_atomic_t user_code = false;
static volatile sig_atomic_t cancel_given = false;
static bool last_words = false;

void
weir_secure_cancel_user_code(void)
{
	cancel_given = true;
	QueryCancelPending = true;
	InterruptPending = true;
}

void
weir_secure_last_words(void)
{
	last_words = true;
	cancel_given = false;
	QueryCancelPending = false;
}

bool
weir_secure_is_cancelled(void)
{
	return user_code && cancel_given;
}

void
weir_secure_user_code(bool on)
{
	user_code = on;
	/* the signal came while none was running, or it ended another's */
	if (on && ShutdownRequestPending && !last_words)
		weir_secure_cancel_user_code();
}

bool
weir_secure_in_user_code(void)
{
	return user_code;
}
