/* pg_weir 0.1.0: install script */

-- complain if the script is sourced in psql rather than by CREATE EXTENSION
\echo Use "CREATE EXTENSION pg_weir" to load this file. \quit

/*
 * Everything but the window functions lives in a schema of its own.  It is
 * created here, plainly: if somebody else made one of that name before, the
 * installation fails rather than adopts it.
 */
CREATE SCHEMA weir;
GRANT USAGE ON SCHEMA weir TO PUBLIC;

/* ---- tables; src/catalog.h says who writes what ---- */

CREATE TABLE weir.view_wish (
	view pg_catalog.oid NOT NULL PRIMARY KEY,
	stream pg_catalog.oid NOT NULL,
	wanted pg_catalog."char" NOT NULL,
	generation pg_catalog.int8 NOT NULL,
	resumes pg_catalog.int8 NOT NULL,
	since pg_catalog.int8 NOT NULL,
	kept_through pg_catalog.int8 NOT NULL
) USING heap WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0,
	autovacuum_vacuum_threshold = 100);
CREATE INDEX view_wish_stream_idx ON weir.view_wish USING btree (stream);
REVOKE ALL ON weir.view_wish FROM PUBLIC;

CREATE TABLE weir.view_position (
	view pg_catalog.oid NOT NULL,
	generation pg_catalog.int8 NOT NULL,
	answering pg_catalog.bool NOT NULL,
	"position" pg_catalog.int8 NOT NULL,
	watermark pg_catalog.timestamptz NOT NULL,
	closed_before pg_catalog.int8 NOT NULL,
	allowed_lateness pg_catalog.int8 NOT NULL,
	checkpoint_seq pg_catalog.int8 NOT NULL,
	events_in pg_catalog.int8 NOT NULL,
	late pg_catalog.int8 NOT NULL,
	late_partial pg_catalog.int8 NOT NULL,
	final_rows pg_catalog.int8 NOT NULL,
	built pg_catalog.bool NOT NULL,
	failed_resumes pg_catalog.int8 NOT NULL,
	format pg_catalog.int4 NOT NULL,
	server_major pg_catalog.int4 NOT NULL,
	checkpoint_at pg_catalog.timestamptz NOT NULL,
	checkpoint_us pg_catalog.int8 NOT NULL,
	checkpoint_bytes pg_catalog.int8 NOT NULL,
	checksum pg_catalog.int4 NOT NULL,
	sqlstate pg_catalog.text,
	error pg_catalog.text,
	layout pg_catalog.text,
	PRIMARY KEY (view, generation)
) USING heap WITH (fillfactor = 40, autovacuum_vacuum_scale_factor = 0,
	autovacuum_vacuum_threshold = 200);
REVOKE ALL ON weir.view_position FROM PUBLIC;

/*
 * Blobs are a few kB and incompressible for pglz's worth of time: a tuple of
 * up to a page stays in line, a longer one goes out of line as it is.
 */
CREATE TABLE weir.view_state (
	view pg_catalog.oid NOT NULL,
	generation pg_catalog.int8 NOT NULL,
	seq pg_catalog.int8 NOT NULL,
	max_pane pg_catalog.int8 NOT NULL,
	ngroups pg_catalog.int4 NOT NULL,
	data pg_catalog.bytea NOT NULL
) USING heap WITH (toast_tuple_target = 8160,
	autovacuum_vacuum_scale_factor = 0.1, autovacuum_vacuum_threshold = 1000,
	autovacuum_analyze_scale_factor = 0.5);
ALTER TABLE weir.view_state ALTER COLUMN data SET STORAGE EXTERNAL;
CREATE INDEX view_state_idx ON weir.view_state
	USING btree (view, generation, seq);
REVOKE ALL ON weir.view_state FROM PUBLIC;

CREATE TABLE weir.view_pending (
	view pg_catalog.oid NOT NULL,
	generation pg_catalog.int8 NOT NULL,
	pane pg_catalog.int8 NOT NULL,
	data pg_catalog.bytea NOT NULL
) USING heap WITH (toast_tuple_target = 8160);
ALTER TABLE weir.view_pending ALTER COLUMN data SET STORAGE EXTERNAL;
CREATE INDEX view_pending_idx ON weir.view_pending
	USING btree (view, generation, pane);
REVOKE ALL ON weir.view_pending FROM PUBLIC;

CREATE TABLE weir.late_pending (
	view pg_catalog.oid NOT NULL,
	generation pg_catalog.int8 NOT NULL,
	window_end pg_catalog.int8 NOT NULL,
	watermark pg_catalog.timestamptz NOT NULL,
	arrived_at pg_catalog.timestamptz NOT NULL,
	data pg_catalog.bytea NOT NULL
) USING heap;
ALTER TABLE weir.late_pending ALTER COLUMN data SET STORAGE EXTERNAL;
CREATE INDEX late_pending_idx ON weir.late_pending
	USING btree (view, generation);
REVOKE ALL ON weir.late_pending FROM PUBLIC;

/* what a restore has brought, until the view's REFRESH: src/portal.c */
CREATE TABLE weir.view_import (
	view pg_catalog.oid NOT NULL,
	part pg_catalog.text NOT NULL,
	trusted pg_catalog.bool NOT NULL,
	data pg_catalog._text NOT NULL
) USING heap;
CREATE INDEX view_import_idx ON weir.view_import USING btree (view, part);
REVOKE ALL ON weir.view_import FROM PUBLIC;

CREATE TABLE weir.error_log (
	id pg_catalog.int8 GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
	view pg_catalog.oid NOT NULL,
	generation pg_catalog.int8 NOT NULL,
	stream pg_catalog.oid NOT NULL,
	event pg_catalog.jsonb,
	sqlstate pg_catalog.text NOT NULL,
	message pg_catalog.text NOT NULL,
	at pg_catalog.timestamptz NOT NULL
) USING heap;
CREATE INDEX error_log_view_idx ON weir.error_log
	USING btree (view, generation);
REVOKE ALL ON weir.error_log FROM PUBLIC;

CREATE TABLE weir.stream_trim (
	stream pg_catalog.oid NOT NULL PRIMARY KEY,
	up_to pg_catalog.int8 NOT NULL,
	max_time pg_catalog.int8 NOT NULL,
	checksum pg_catalog.int4 NOT NULL
) USING heap;
REVOKE ALL ON weir.stream_trim FROM PUBLIC;

/* what is in the log, 8 MB a row (runs.c) */
CREATE TABLE weir.log_run (
	stream pg_catalog.oid NOT NULL,
	first_block pg_catalog.int8 NOT NULL,
	filenumber pg_catalog.oid NOT NULL,
	blocks pg_catalog.int4 NOT NULL,
	vm_lsn pg_catalog.pg_lsn NOT NULL,
	opaque pg_catalog.bool NOT NULL,
	max_number pg_catalog.int8 NOT NULL,
	min_number pg_catalog.int8 NOT NULL,
	min_arrival pg_catalog.timestamptz NOT NULL,
	max_arrival pg_catalog.timestamptz NOT NULL,
	min_time pg_catalog.int8 NOT NULL,
	max_time pg_catalog.int8 NOT NULL,
	chunks pg_catalog.int8 NOT NULL,
	events pg_catalog.int8 NOT NULL,
	bytes pg_catalog.int8 NOT NULL,
	watermark pg_catalog.timestamptz NOT NULL,
	watermark_number pg_catalog.int8 NOT NULL,
	watermark_arrival pg_catalog.timestamptz NOT NULL,
	watermark_kind pg_catalog.int4 NOT NULL,
	checksum pg_catalog.int4 NOT NULL,
	open pg_catalog._int8 NOT NULL,
	PRIMARY KEY (stream, first_block)
) USING heap;
REVOKE ALL ON weir.log_run FROM PUBLIC;

CREATE TABLE weir.stream_end (
	stream pg_catalog.oid NOT NULL PRIMARY KEY,
	at pg_catalog.timestamptz NOT NULL
) USING heap;
REVOKE ALL ON weir.stream_end FROM PUBLIC;

/*
 * What these say is of this database alone, but a publication FOR ALL TABLES
 * has them, and its subscriber may have the extension, too: it takes none of
 * their rows.  (Ours are written past all triggers.)
 */
CREATE FUNCTION weir.refuse_replicated()
	RETURNS pg_catalog.trigger
	AS 'MODULE_PATHNAME', 'weir_catalog_refuse_replicated'
	LANGUAGE C STRICT;
COMMENT ON FUNCTION weir.refuse_replicated() IS
	'keeps out rows that logical replication brings';
REVOKE ALL ON FUNCTION weir.refuse_replicated() FROM PUBLIC;

CREATE TRIGGER refuse_replicated BEFORE INSERT OR UPDATE OR DELETE
	ON weir.view_wish FOR EACH ROW EXECUTE FUNCTION weir.refuse_replicated();
ALTER TABLE weir.view_wish ENABLE REPLICA TRIGGER refuse_replicated;
CREATE TRIGGER refuse_replicated BEFORE INSERT OR UPDATE OR DELETE
	ON weir.view_position FOR EACH ROW EXECUTE FUNCTION weir.refuse_replicated();
ALTER TABLE weir.view_position ENABLE REPLICA TRIGGER refuse_replicated;
CREATE TRIGGER refuse_replicated BEFORE INSERT OR UPDATE OR DELETE
	ON weir.view_state FOR EACH ROW EXECUTE FUNCTION weir.refuse_replicated();
ALTER TABLE weir.view_state ENABLE REPLICA TRIGGER refuse_replicated;
CREATE TRIGGER refuse_replicated BEFORE INSERT OR UPDATE OR DELETE
	ON weir.view_pending FOR EACH ROW EXECUTE FUNCTION weir.refuse_replicated();
ALTER TABLE weir.view_pending ENABLE REPLICA TRIGGER refuse_replicated;
CREATE TRIGGER refuse_replicated BEFORE INSERT OR UPDATE OR DELETE
	ON weir.late_pending FOR EACH ROW EXECUTE FUNCTION weir.refuse_replicated();
ALTER TABLE weir.late_pending ENABLE REPLICA TRIGGER refuse_replicated;
CREATE TRIGGER refuse_replicated BEFORE INSERT OR UPDATE OR DELETE
	ON weir.view_import FOR EACH ROW EXECUTE FUNCTION weir.refuse_replicated();
ALTER TABLE weir.view_import ENABLE REPLICA TRIGGER refuse_replicated;
CREATE TRIGGER refuse_replicated BEFORE INSERT OR UPDATE OR DELETE
	ON weir.error_log FOR EACH ROW EXECUTE FUNCTION weir.refuse_replicated();
ALTER TABLE weir.error_log ENABLE REPLICA TRIGGER refuse_replicated;
CREATE TRIGGER refuse_replicated BEFORE INSERT OR UPDATE OR DELETE
	ON weir.stream_trim FOR EACH ROW EXECUTE FUNCTION weir.refuse_replicated();
ALTER TABLE weir.stream_trim ENABLE REPLICA TRIGGER refuse_replicated;
CREATE TRIGGER refuse_replicated BEFORE INSERT OR UPDATE OR DELETE
	ON weir.log_run FOR EACH ROW EXECUTE FUNCTION weir.refuse_replicated();
ALTER TABLE weir.log_run ENABLE REPLICA TRIGGER refuse_replicated;
CREATE TRIGGER refuse_replicated BEFORE INSERT OR UPDATE OR DELETE
	ON weir.stream_end FOR EACH ROW EXECUTE FUNCTION weir.refuse_replicated();
ALTER TABLE weir.stream_end ENABLE REPLICA TRIGGER refuse_replicated;

/* ---- access methods ---- */

CREATE FUNCTION weir.stream_handler(pg_catalog.internal)
	RETURNS pg_catalog.table_am_handler
	AS 'MODULE_PATHNAME', 'weir_stream_handler' LANGUAGE C STRICT;
COMMENT ON FUNCTION weir.stream_handler(pg_catalog.internal) IS
	'handler of the table access method "stream"';

CREATE FUNCTION weir.continuous_handler(pg_catalog.internal)
	RETURNS pg_catalog.table_am_handler
	AS 'MODULE_PATHNAME', 'weir_continuous_handler' LANGUAGE C STRICT;
COMMENT ON FUNCTION weir.continuous_handler(pg_catalog.internal) IS
	'handler of the table access method "continuous"';

CREATE ACCESS METHOD stream TYPE TABLE HANDLER weir.stream_handler;
COMMENT ON ACCESS METHOD stream IS
	'append-only log of events, read by continuous views';
CREATE ACCESS METHOD continuous TYPE TABLE HANDLER weir.continuous_handler;
COMMENT ON ACCESS METHOD continuous IS
	'materialized view that background workers keep up to date';

/*
 * What pg_dump carries of continuous views beside their definitions: it takes
 * this for a table of rows that users put into the extension, reads it with COPY
 * and fills it with COPY.  It holds nothing: src/portal.c.  Everybody may, and
 * sees or writes what is of views that he owns.
 */
CREATE FUNCTION weir.portal_handler(pg_catalog.internal)
	RETURNS pg_catalog.table_am_handler
	AS 'MODULE_PATHNAME', 'weir_portal_handler' LANGUAGE C STRICT;
COMMENT ON FUNCTION weir.portal_handler(pg_catalog.internal) IS
	'handler of the table access method "weir_portal"';
CREATE ACCESS METHOD weir_portal TYPE TABLE HANDLER weir.portal_handler;
COMMENT ON ACCESS METHOD weir_portal IS
	'shows the state of continuous views to pg_dump';
CREATE TABLE weir.view_dump (
	view pg_catalog.text NOT NULL,
	part pg_catalog.text NOT NULL,
	data pg_catalog._text NOT NULL
) USING weir_portal WITH (parallel_workers = 0);
COMMENT ON TABLE weir.view_dump IS
	'rows, state and position of continuous views, for pg_dump';
GRANT SELECT, INSERT ON weir.view_dump TO PUBLIC;
SELECT pg_catalog.pg_extension_config_dump('weir.view_dump', '');

/* ---- reading, waiting, asking: src/stats.c, src/view.c ---- */

CREATE FUNCTION weir.wait_for(view pg_catalog.regclass DEFAULT NULL,
	timeout pg_catalog.interval DEFAULT '60 s')
	RETURNS pg_catalog.bool
	AS 'MODULE_PATHNAME', 'weir_stats_wait_for'
	LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION weir.wait_for(pg_catalog.regclass, pg_catalog.interval) IS
	'wait until a view (or all) has consumed every event committed before the call';

CREATE FUNCTION weir.watermark(rel pg_catalog.regclass)
	RETURNS pg_catalog.timestamptz
	AS 'MODULE_PATHNAME', 'weir_stats_watermark'
	LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE;
COMMENT ON FUNCTION weir.watermark(pg_catalog.regclass) IS
	'how far event time has come in a stream or a view';

CREATE FUNCTION weir.is_final(view pg_catalog.regclass,
	window_end pg_catalog.timestamptz)
	RETURNS pg_catalog.bool
	AS 'MODULE_PATHNAME', 'weir_view_is_final'
	LANGUAGE C STABLE STRICT PARALLEL RESTRICTED;
COMMENT ON FUNCTION weir.is_final(pg_catalog.regclass, pg_catalog.timestamptz)
	IS 'true if the rows of this window can change no more';

CREATE FUNCTION weir.is_final(view pg_catalog.regclass,
	window_end pg_catalog.timestamp)
	RETURNS pg_catalog.bool
	AS 'MODULE_PATHNAME', 'weir_view_is_final'
	LANGUAGE C STABLE STRICT PARALLEL RESTRICTED;
COMMENT ON FUNCTION weir.is_final(pg_catalog.regclass, pg_catalog.timestamp)
	IS 'true if the rows of this window can change no more';

CREATE FUNCTION weir.advance_watermark(stream pg_catalog.regclass,
	watermark pg_catalog.timestamptz)
	RETURNS pg_catalog.timestamptz
	AS 'MODULE_PATHNAME', 'weir_stats_advance_watermark'
	LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE;
COMMENT ON FUNCTION weir.advance_watermark(pg_catalog.regclass,
	pg_catalog.timestamptz) IS
	'raise the watermark of a stream when this transaction commits';

CREATE FUNCTION weir.summarize(stream pg_catalog.regclass)
	RETURNS pg_catalog.int8
	AS 'MODULE_PATHNAME', 'weir_stats_summarize'
	LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE;
COMMENT ON FUNCTION weir.summarize(pg_catalog.regclass) IS
	'summarize what VACUUM has found visible to all in the log of a stream; number of runs';

CREATE FUNCTION weir.pause(view pg_catalog.regclass)
	RETURNS pg_catalog.void
	AS 'MODULE_PATHNAME', 'weir_stats_pause'
	LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE;
COMMENT ON FUNCTION weir.pause(pg_catalog.regclass) IS
	'stop maintaining a view; its state and position are kept';

CREATE FUNCTION weir.resume(view pg_catalog.regclass)
	RETURNS pg_catalog.void
	AS 'MODULE_PATHNAME', 'weir_stats_resume'
	LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE;
COMMENT ON FUNCTION weir.resume(pg_catalog.regclass) IS
	'continue a paused or failed view';

CREATE FUNCTION weir.checkpoint()
	RETURNS pg_catalog.void
	AS 'MODULE_PATHNAME', 'weir_stats_checkpoint'
	LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE;
COMMENT ON FUNCTION weir.checkpoint() IS
	'checkpoint all running views of this database now';
/* it makes work for everybody, as CHECKPOINT does */
REVOKE ALL ON FUNCTION weir.checkpoint() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION weir.checkpoint() TO pg_checkpoint;

CREATE FUNCTION weir.explain(view pg_catalog.regclass)
	RETURNS SETOF pg_catalog.text
	AS 'MODULE_PATHNAME', 'weir_stats_explain'
	LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE ROWS 20;
COMMENT ON FUNCTION weir.explain(pg_catalog.regclass) IS
	'how a view is maintained';

CREATE FUNCTION weir.stream_rows(OUT stream pg_catalog.regclass,
	OUT rows_in pg_catalog.int8, OUT bytes_in pg_catalog.int8,
	OUT oldest_event pg_catalog.timestamptz,
	OUT newest_event pg_catalog.timestamptz, OUT log_bytes pg_catalog.int8,
	OUT watermark pg_catalog.timestamptz, OUT refused_future pg_catalog.int8,
	OUT oldest_writer pg_catalog.interval, OUT held_by pg_catalog.regclass,
	OUT writers_waiting pg_catalog.int4)
	RETURNS SETOF pg_catalog.record
	AS 'MODULE_PATHNAME', 'weir_stats_streams'
	LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE ROWS 10;

CREATE VIEW weir.streams AS SELECT * FROM weir.stream_rows();
COMMENT ON VIEW weir.streams IS 'the streams the caller may SELECT from';
GRANT SELECT ON weir.streams TO PUBLIC;

CREATE FUNCTION weir.view_rows(OUT view pg_catalog.regclass,
	OUT owner pg_catalog.regrole, OUT state pg_catalog.text,
	OUT error pg_catalog.text, OUT worker_pid pg_catalog.int4,
	OUT events_in pg_catalog.int8, OUT late pg_catalog.int8,
	OUT late_partial pg_catalog.int8, OUT groups pg_catalog.int8,
	OUT state_bytes pg_catalog.int8, OUT spilled_bytes pg_catalog.int8,
	OUT final_rows pg_catalog.int8, OUT watermark pg_catalog.timestamptz,
	OUT lag_events pg_catalog.int8, OUT lag_bytes pg_catalog.int8,
	OUT lag pg_catalog.interval, OUT batch_ms pg_catalog.float8,
	OUT checkpoint_at pg_catalog.timestamptz,
	OUT checkpoint_ms pg_catalog.float8, OUT checkpoint_bytes pg_catalog.int8,
	OUT visible_p50_ms pg_catalog.float8, OUT visible_p99_ms pg_catalog.float8,
	OUT build_done pg_catalog.int8, OUT build_total pg_catalog.int8)
	RETURNS SETOF pg_catalog.record
	AS 'MODULE_PATHNAME', 'weir_stats_views'
	LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE ROWS 10;

CREATE VIEW weir.views AS SELECT * FROM weir.view_rows();
COMMENT ON VIEW weir.views IS
	'the continuous views the caller may SELECT from';
GRANT SELECT ON weir.views TO PUBLIC;

CREATE FUNCTION weir.worker_rows(OUT pid pg_catalog.int4,
	OUT busy_ms pg_catalog.float8, OUT idle_ms pg_catalog.float8,
	OUT batches pg_catalog.int8, OUT views pg_catalog.regclass[])
	RETURNS SETOF pg_catalog.record
	AS 'MODULE_PATHNAME', 'weir_stats_workers'
	LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE ROWS 2;

CREATE VIEW weir.workers AS SELECT * FROM weir.worker_rows();
COMMENT ON VIEW weir.workers IS 'the workers of this database';
GRANT SELECT ON weir.workers TO PUBLIC;

CREATE FUNCTION weir.errors_visible(view pg_catalog.oid)
	RETURNS pg_catalog.int4
	AS 'MODULE_PATHNAME', 'weir_stats_errors_visible'
	LANGUAGE C STABLE STRICT PARALLEL RESTRICTED;
COMMENT ON FUNCTION weir.errors_visible(pg_catalog.oid) IS
	'0 nothing, 1 that there were errors, 2 their events and texts';

/* A rebuild's take the place of the others in the swap, unless it fails. */
CREATE VIEW weir.errors WITH (security_barrier) AS
	SELECT e.id, e.view::pg_catalog.regclass AS view,
		e.stream::pg_catalog.regclass AS stream,
		CASE WHEN weir.errors_visible(e.view) OPERATOR(pg_catalog.=) 2
			THEN e.event END AS event,
		e.sqlstate,
		CASE WHEN weir.errors_visible(e.view) OPERATOR(pg_catalog.=) 2
			THEN e.message END AS message,
		e.at
	FROM weir.error_log e
	WHERE weir.errors_visible(e.view) OPERATOR(pg_catalog.>) 0
		AND NOT EXISTS (
			SELECT FROM weir.view_position p
			WHERE p.view OPERATOR(pg_catalog.=) e.view
				AND p.generation OPERATOR(pg_catalog.=) e.generation
				AND NOT p.answering
				AND p.failed_resumes OPERATOR(pg_catalog.<) 0);
COMMENT ON VIEW weir.errors IS
	'events given up by views with on_error = skip, and errors that stopped a view';
GRANT SELECT ON weir.errors TO PUBLIC;

/* ---- windows: src/window.c; the arrival: src/stream.c ---- */

/*
 * What now() as the time of a window becomes in a view's query over the log:
 * when the event's transaction arrived.  Elsewhere it is now().
 */
CREATE FUNCTION weir.arrival()
	RETURNS pg_catalog.timestamptz
	AS 'MODULE_PATHNAME', 'weir_stream_arrival'
	LANGUAGE C STABLE STRICT PARALLEL RESTRICTED;
COMMENT ON FUNCTION weir.arrival() IS
	'stands for now() in the windows of continuous views';

/*
 * The scalars behind the window functions.  Sizes are of fixed length and
 * microseconds are added, so these depend on no setting.
 */
CREATE FUNCTION weir.tumble_start(ts pg_catalog.timestamptz,
	size pg_catalog.interval, origin pg_catalog.timestamptz)
	RETURNS pg_catalog.timestamptz
	AS 'MODULE_PATHNAME', 'weir_tumble_start'
	LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
CREATE FUNCTION weir.tumble_end(ts pg_catalog.timestamptz,
	size pg_catalog.interval, origin pg_catalog.timestamptz)
	RETURNS pg_catalog.timestamptz
	AS 'MODULE_PATHNAME', 'weir_tumble_end'
	LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
CREATE FUNCTION weir.tumble_start(ts pg_catalog.timestamp,
	size pg_catalog.interval, origin pg_catalog.timestamp)
	RETURNS pg_catalog.timestamp
	AS 'MODULE_PATHNAME', 'weir_tumble_start'
	LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
CREATE FUNCTION weir.tumble_end(ts pg_catalog.timestamp,
	size pg_catalog.interval, origin pg_catalog.timestamp)
	RETURNS pg_catalog.timestamp
	AS 'MODULE_PATHNAME', 'weir_tumble_end'
	LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;

/*
 * In the extension's schema, because they stand in FROM of everybody's
 * queries.  The planner inlines them: set-returning, not strict, one SELECT.
 */
CREATE FUNCTION tumble(ts pg_catalog.timestamptz, size pg_catalog.interval,
	origin pg_catalog.timestamptz
		DEFAULT '1970-01-01 00:00:00+00'::pg_catalog.timestamptz,
	OUT window_start pg_catalog.timestamptz,
	OUT window_end pg_catalog.timestamptz)
	RETURNS SETOF pg_catalog.record
	LANGUAGE SQL IMMUTABLE PARALLEL SAFE ROWS 1
	BEGIN ATOMIC
		SELECT weir.tumble_start(ts, size, origin),
			weir.tumble_end(ts, size, origin);
	END;
COMMENT ON FUNCTION tumble(pg_catalog.timestamptz, pg_catalog.interval,
	pg_catalog.timestamptz) IS
	'the window of fixed size that a time falls into';

CREATE FUNCTION tumble(ts pg_catalog.timestamp, size pg_catalog.interval,
	origin pg_catalog.timestamp
		DEFAULT '1970-01-01 00:00:00'::pg_catalog.timestamp,
	OUT window_start pg_catalog.timestamp,
	OUT window_end pg_catalog.timestamp)
	RETURNS SETOF pg_catalog.record
	LANGUAGE SQL IMMUTABLE PARALLEL SAFE ROWS 1
	BEGIN ATOMIC
		SELECT weir.tumble_start(ts, size, origin),
			weir.tumble_end(ts, size, origin);
	END;
COMMENT ON FUNCTION tumble(pg_catalog.timestamp, pg_catalog.interval,
	pg_catalog.timestamp) IS
	'the window of fixed size that a time falls into';

/* refuses: a date would become a timestamptz silently */
CREATE FUNCTION tumble(ts pg_catalog.date, size pg_catalog.interval,
	origin pg_catalog.timestamptz DEFAULT NULL,
	OUT window_start pg_catalog.timestamptz,
	OUT window_end pg_catalog.timestamptz)
	RETURNS SETOF pg_catalog.record
	AS 'MODULE_PATHNAME', 'weir_tumble_date'
	LANGUAGE C IMMUTABLE PARALLEL SAFE ROWS 1;
COMMENT ON FUNCTION tumble(pg_catalog.date, pg_catalog.interval,
	pg_catalog.timestamptz) IS
	'not supported: cast the date to timestamp or timestamptz';

/*
 * hop() and cumulate(): a time is in several windows, here numbered; see
 * src/window.c.  The planner inlines them to a join with a series.
 */
CREATE FUNCTION weir.window_count(slide pg_catalog.interval,
	size pg_catalog.interval, cumulate pg_catalog.bool)
	RETURNS pg_catalog.int4
	AS 'MODULE_PATHNAME', 'weir_window_count'
	LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;

CREATE FUNCTION weir.hop_start(ts pg_catalog.timestamptz, slide pg_catalog.interval,
	size pg_catalog.interval, origin pg_catalog.timestamptz, n pg_catalog.int4)
	RETURNS pg_catalog.timestamptz
	AS 'MODULE_PATHNAME', 'weir_hop_start'
	LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
CREATE FUNCTION weir.hop_end(ts pg_catalog.timestamptz, slide pg_catalog.interval,
	size pg_catalog.interval, origin pg_catalog.timestamptz, n pg_catalog.int4)
	RETURNS pg_catalog.timestamptz
	AS 'MODULE_PATHNAME', 'weir_hop_end'
	LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
CREATE FUNCTION weir.cumulate_start(ts pg_catalog.timestamptz, step pg_catalog.interval,
	size pg_catalog.interval, origin pg_catalog.timestamptz)
	RETURNS pg_catalog.timestamptz
	AS 'MODULE_PATHNAME', 'weir_cumulate_start'
	LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
CREATE FUNCTION weir.cumulate_end(ts pg_catalog.timestamptz, step pg_catalog.interval,
	size pg_catalog.interval, origin pg_catalog.timestamptz, n pg_catalog.int4)
	RETURNS pg_catalog.timestamptz
	AS 'MODULE_PATHNAME', 'weir_cumulate_end'
	LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
CREATE FUNCTION weir.cumulate_step(ts pg_catalog.timestamptz, step pg_catalog.interval,
	size pg_catalog.interval, origin pg_catalog.timestamptz)
	RETURNS pg_catalog.int4
	AS 'MODULE_PATHNAME', 'weir_cumulate_step'
	LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
CREATE FUNCTION hop(ts pg_catalog.timestamptz, slide pg_catalog.interval,
	size pg_catalog.interval,
	origin pg_catalog.timestamptz DEFAULT '1970-01-01 00:00:00+00'::pg_catalog.timestamptz,
	OUT window_start pg_catalog.timestamptz, OUT window_end pg_catalog.timestamptz)
	RETURNS SETOF pg_catalog.record
	LANGUAGE SQL IMMUTABLE PARALLEL SAFE ROWS 10
	BEGIN ATOMIC
		SELECT weir.hop_start(ts, slide, size, origin, n.n),
			weir.hop_end(ts, slide, size, origin, n.n)
		FROM pg_catalog.generate_series(0,
			weir.window_count(slide, size, false) OPERATOR(pg_catalog.-) 1) n(n);
	END;
COMMENT ON FUNCTION hop(pg_catalog.timestamptz, pg_catalog.interval, pg_catalog.interval,
	pg_catalog.timestamptz) IS
	'the windows of fixed size, one every slide, that a time falls into';
CREATE FUNCTION cumulate(ts pg_catalog.timestamptz, step pg_catalog.interval,
	size pg_catalog.interval,
	origin pg_catalog.timestamptz DEFAULT '1970-01-01 00:00:00+00'::pg_catalog.timestamptz,
	OUT window_start pg_catalog.timestamptz, OUT window_end pg_catalog.timestamptz)
	RETURNS SETOF pg_catalog.record
	LANGUAGE SQL IMMUTABLE PARALLEL SAFE ROWS 10
	BEGIN ATOMIC
		SELECT weir.cumulate_start(ts, step, size, origin),
			weir.cumulate_end(ts, step, size, origin, n.n)
		FROM pg_catalog.generate_series(
			weir.cumulate_step(ts, step, size, origin),
			weir.window_count(step, size, true)) n(n);
	END;
COMMENT ON FUNCTION cumulate(pg_catalog.timestamptz, pg_catalog.interval, pg_catalog.interval,
	pg_catalog.timestamptz) IS
	'the windows of one start and growing end that a time falls into';
/* what a continuous view runs instead: the first of the windows only */
CREATE FUNCTION weir.hop_first(ts pg_catalog.timestamptz, slide pg_catalog.interval,
	size pg_catalog.interval, origin pg_catalog.timestamptz,
	OUT window_start pg_catalog.timestamptz, OUT window_end pg_catalog.timestamptz)
	RETURNS SETOF pg_catalog.record
	LANGUAGE SQL IMMUTABLE PARALLEL SAFE ROWS 1
	BEGIN ATOMIC
		SELECT weir.hop_start(ts, slide, size, origin, 0),
			weir.hop_end(ts, slide, size, origin, 0);
	END;
CREATE FUNCTION weir.cumulate_first(ts pg_catalog.timestamptz, step pg_catalog.interval,
	size pg_catalog.interval, origin pg_catalog.timestamptz,
	OUT window_start pg_catalog.timestamptz, OUT window_end pg_catalog.timestamptz)
	RETURNS SETOF pg_catalog.record
	LANGUAGE SQL IMMUTABLE PARALLEL SAFE ROWS 1
	BEGIN ATOMIC
		SELECT weir.cumulate_start(ts, step, size, origin),
			weir.cumulate_end(ts, step, size, origin, 0);
	END;

CREATE FUNCTION weir.hop_start(ts pg_catalog.timestamp, slide pg_catalog.interval,
	size pg_catalog.interval, origin pg_catalog.timestamp, n pg_catalog.int4)
	RETURNS pg_catalog.timestamp
	AS 'MODULE_PATHNAME', 'weir_hop_start'
	LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
CREATE FUNCTION weir.hop_end(ts pg_catalog.timestamp, slide pg_catalog.interval,
	size pg_catalog.interval, origin pg_catalog.timestamp, n pg_catalog.int4)
	RETURNS pg_catalog.timestamp
	AS 'MODULE_PATHNAME', 'weir_hop_end'
	LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
CREATE FUNCTION weir.cumulate_start(ts pg_catalog.timestamp, step pg_catalog.interval,
	size pg_catalog.interval, origin pg_catalog.timestamp)
	RETURNS pg_catalog.timestamp
	AS 'MODULE_PATHNAME', 'weir_cumulate_start'
	LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
CREATE FUNCTION weir.cumulate_end(ts pg_catalog.timestamp, step pg_catalog.interval,
	size pg_catalog.interval, origin pg_catalog.timestamp, n pg_catalog.int4)
	RETURNS pg_catalog.timestamp
	AS 'MODULE_PATHNAME', 'weir_cumulate_end'
	LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
CREATE FUNCTION weir.cumulate_step(ts pg_catalog.timestamp, step pg_catalog.interval,
	size pg_catalog.interval, origin pg_catalog.timestamp)
	RETURNS pg_catalog.int4
	AS 'MODULE_PATHNAME', 'weir_cumulate_step'
	LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
CREATE FUNCTION hop(ts pg_catalog.timestamp, slide pg_catalog.interval,
	size pg_catalog.interval,
	origin pg_catalog.timestamp DEFAULT '1970-01-01 00:00:00'::pg_catalog.timestamp,
	OUT window_start pg_catalog.timestamp, OUT window_end pg_catalog.timestamp)
	RETURNS SETOF pg_catalog.record
	LANGUAGE SQL IMMUTABLE PARALLEL SAFE ROWS 10
	BEGIN ATOMIC
		SELECT weir.hop_start(ts, slide, size, origin, n.n),
			weir.hop_end(ts, slide, size, origin, n.n)
		FROM pg_catalog.generate_series(0,
			weir.window_count(slide, size, false) OPERATOR(pg_catalog.-) 1) n(n);
	END;
COMMENT ON FUNCTION hop(pg_catalog.timestamp, pg_catalog.interval, pg_catalog.interval,
	pg_catalog.timestamp) IS
	'the windows of fixed size, one every slide, that a time falls into';
CREATE FUNCTION cumulate(ts pg_catalog.timestamp, step pg_catalog.interval,
	size pg_catalog.interval,
	origin pg_catalog.timestamp DEFAULT '1970-01-01 00:00:00'::pg_catalog.timestamp,
	OUT window_start pg_catalog.timestamp, OUT window_end pg_catalog.timestamp)
	RETURNS SETOF pg_catalog.record
	LANGUAGE SQL IMMUTABLE PARALLEL SAFE ROWS 10
	BEGIN ATOMIC
		SELECT weir.cumulate_start(ts, step, size, origin),
			weir.cumulate_end(ts, step, size, origin, n.n)
		FROM pg_catalog.generate_series(
			weir.cumulate_step(ts, step, size, origin),
			weir.window_count(step, size, true)) n(n);
	END;
COMMENT ON FUNCTION cumulate(pg_catalog.timestamp, pg_catalog.interval, pg_catalog.interval,
	pg_catalog.timestamp) IS
	'the windows of one start and growing end that a time falls into';
/* what a continuous view runs instead: the first of the windows only */
CREATE FUNCTION weir.hop_first(ts pg_catalog.timestamp, slide pg_catalog.interval,
	size pg_catalog.interval, origin pg_catalog.timestamp,
	OUT window_start pg_catalog.timestamp, OUT window_end pg_catalog.timestamp)
	RETURNS SETOF pg_catalog.record
	LANGUAGE SQL IMMUTABLE PARALLEL SAFE ROWS 1
	BEGIN ATOMIC
		SELECT weir.hop_start(ts, slide, size, origin, 0),
			weir.hop_end(ts, slide, size, origin, 0);
	END;
CREATE FUNCTION weir.cumulate_first(ts pg_catalog.timestamp, step pg_catalog.interval,
	size pg_catalog.interval, origin pg_catalog.timestamp,
	OUT window_start pg_catalog.timestamp, OUT window_end pg_catalog.timestamp)
	RETURNS SETOF pg_catalog.record
	LANGUAGE SQL IMMUTABLE PARALLEL SAFE ROWS 1
	BEGIN ATOMIC
		SELECT weir.cumulate_start(ts, step, size, origin),
			weir.cumulate_end(ts, step, size, origin, 0);
	END;

CREATE FUNCTION hop(ts pg_catalog.date, slide pg_catalog.interval,
	size pg_catalog.interval, origin pg_catalog.timestamptz DEFAULT NULL,
	OUT window_start pg_catalog.timestamptz,
	OUT window_end pg_catalog.timestamptz)
	RETURNS SETOF pg_catalog.record
	AS 'MODULE_PATHNAME', 'weir_tumble_date'
	LANGUAGE C IMMUTABLE PARALLEL SAFE ROWS 1;
COMMENT ON FUNCTION hop(pg_catalog.date, pg_catalog.interval,
	pg_catalog.interval, pg_catalog.timestamptz) IS
	'not supported: cast the date to timestamp or timestamptz';
CREATE FUNCTION cumulate(ts pg_catalog.date, step pg_catalog.interval,
	size pg_catalog.interval, origin pg_catalog.timestamptz DEFAULT NULL,
	OUT window_start pg_catalog.timestamptz,
	OUT window_end pg_catalog.timestamptz)
	RETURNS SETOF pg_catalog.record
	AS 'MODULE_PATHNAME', 'weir_tumble_date'
	LANGUAGE C IMMUTABLE PARALLEL SAFE ROWS 1;
COMMENT ON FUNCTION cumulate(pg_catalog.date, pg_catalog.interval,
	pg_catalog.interval, pg_catalog.timestamptz) IS
	'not supported: cast the date to timestamp or timestamptz';

/*
 * Windows that depend on other rows (src/window_rows.c).  In FROM of a query
 * that groups by their columns these are replaced before planning
 * (src/window_query.c); called for themselves they refuse.
 */
CREATE FUNCTION session(ts pg_catalog.timestamptz, gap pg_catalog.interval,
	OUT window_start pg_catalog.timestamptz,
	OUT window_end pg_catalog.timestamptz)
	RETURNS SETOF pg_catalog.record
	AS 'MODULE_PATHNAME', 'weir_session'
	LANGUAGE C IMMUTABLE PARALLEL SAFE ROWS 1;
COMMENT ON FUNCTION session(pg_catalog.timestamptz, pg_catalog.interval) IS
	'the window from the first to the last of rows that are no more than a gap apart';

CREATE FUNCTION session(ts pg_catalog.timestamp, gap pg_catalog.interval,
	OUT window_start pg_catalog.timestamp,
	OUT window_end pg_catalog.timestamp)
	RETURNS SETOF pg_catalog.record
	AS 'MODULE_PATHNAME', 'weir_session'
	LANGUAGE C IMMUTABLE PARALLEL SAFE ROWS 1;
COMMENT ON FUNCTION session(pg_catalog.timestamp, pg_catalog.interval) IS
	'the window from the first to the last of rows that are no more than a gap apart';

CREATE FUNCTION session(ts pg_catalog.date, gap pg_catalog.interval,
	OUT window_start pg_catalog.timestamptz,
	OUT window_end pg_catalog.timestamptz)
	RETURNS SETOF pg_catalog.record
	AS 'MODULE_PATHNAME', 'weir_tumble_date'
	LANGUAGE C IMMUTABLE PARALLEL SAFE ROWS 1;
COMMENT ON FUNCTION session(pg_catalog.date, pg_catalog.interval) IS
	'not supported: cast the date to timestamp or timestamptz';

CREATE FUNCTION count_window(size pg_catalog.int8,
	slide pg_catalog.int8 DEFAULT NULL,
	OUT window_start pg_catalog.int8,
	OUT window_end pg_catalog.int8)
	RETURNS SETOF pg_catalog.record
	AS 'MODULE_PATHNAME', 'weir_count_window'
	LANGUAGE C IMMUTABLE PARALLEL SAFE ROWS 1;
COMMENT ON FUNCTION count_window(pg_catalog.int8, pg_catalog.int8) IS
	'windows of so many rows of a stream, one beginning every slide rows';

CREATE FUNCTION weir.session_start(ts pg_catalog.timestamptz,
	gap pg_catalog.interval)
	RETURNS pg_catalog.timestamptz
	AS 'MODULE_PATHNAME', 'weir_session_start'
	LANGUAGE C WINDOW IMMUTABLE PARALLEL SAFE;
CREATE FUNCTION weir.session_end(ts pg_catalog.timestamptz,
	gap pg_catalog.interval)
	RETURNS pg_catalog.timestamptz
	AS 'MODULE_PATHNAME', 'weir_session_end'
	LANGUAGE C WINDOW IMMUTABLE PARALLEL SAFE;
CREATE FUNCTION weir.session_start(ts pg_catalog.timestamp,
	gap pg_catalog.interval)
	RETURNS pg_catalog.timestamp
	AS 'MODULE_PATHNAME', 'weir_session_start'
	LANGUAGE C WINDOW IMMUTABLE PARALLEL SAFE;
CREATE FUNCTION weir.session_end(ts pg_catalog.timestamp,
	gap pg_catalog.interval)
	RETURNS pg_catalog.timestamp
	AS 'MODULE_PATHNAME', 'weir_session_end'
	LANGUAGE C WINDOW IMMUTABLE PARALLEL SAFE;

CREATE FUNCTION weir.count_window_start("row" pg_catalog.int8,
	size pg_catalog.int8)
	RETURNS pg_catalog.int8
	AS 'MODULE_PATHNAME', 'weir_count_window_start'
	LANGUAGE C IMMUTABLE PARALLEL SAFE;
CREATE FUNCTION weir.count_window_end("row" pg_catalog.int8,
	"rows" pg_catalog.int8, size pg_catalog.int8)
	RETURNS pg_catalog.int8
	AS 'MODULE_PATHNAME', 'weir_count_window_end'
	LANGUAGE C IMMUTABLE PARALLEL SAFE;
CREATE FUNCTION weir.count_windows("row" pg_catalog.int8,
	"rows" pg_catalog.int8, size pg_catalog.int8, slide pg_catalog.int8,
	OUT window_start pg_catalog.int8, OUT window_end pg_catalog.int8,
	OUT window_number pg_catalog.int8)
	RETURNS SETOF pg_catalog.record
	AS 'MODULE_PATHNAME', 'weir_count_windows'
	LANGUAGE C IMMUTABLE PARALLEL SAFE ROWS 2;

/* reads the stream's log, with the snapshot of the statement */
CREATE FUNCTION weir.log_order(stream pg_catalog.regclass, "row" pg_catalog.tid)
	RETURNS pg_catalog.int8
	AS 'MODULE_PATHNAME', 'weir_log_order'
	LANGUAGE C STABLE STRICT PARALLEL RESTRICTED;

/* what a continuous view runs instead of session() and count_window() */
CREATE FUNCTION weir.session_event_start(ts pg_catalog.timestamptz, gap pg_catalog.interval)
	RETURNS pg_catalog.timestamptz
	AS 'MODULE_PATHNAME', 'weir_session_event_start'
	LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
CREATE FUNCTION weir.session_event_end(ts pg_catalog.timestamptz, gap pg_catalog.interval)
	RETURNS pg_catalog.timestamptz
	AS 'MODULE_PATHNAME', 'weir_session_event_end'
	LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
CREATE FUNCTION weir.session_event(ts pg_catalog.timestamptz, gap pg_catalog.interval,
	OUT window_start pg_catalog.timestamptz, OUT window_end pg_catalog.timestamptz)
	RETURNS SETOF pg_catalog.record
	LANGUAGE SQL IMMUTABLE PARALLEL SAFE ROWS 1
	BEGIN ATOMIC
		SELECT weir.session_event_start(ts, gap),
			weir.session_event_end(ts, gap);
	END;

CREATE FUNCTION weir.session_event_start(ts pg_catalog.timestamp, gap pg_catalog.interval)
	RETURNS pg_catalog.timestamp
	AS 'MODULE_PATHNAME', 'weir_session_event_start'
	LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
CREATE FUNCTION weir.session_event_end(ts pg_catalog.timestamp, gap pg_catalog.interval)
	RETURNS pg_catalog.timestamp
	AS 'MODULE_PATHNAME', 'weir_session_event_end'
	LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
CREATE FUNCTION weir.session_event(ts pg_catalog.timestamp, gap pg_catalog.interval,
	OUT window_start pg_catalog.timestamp, OUT window_end pg_catalog.timestamp)
	RETURNS SETOF pg_catalog.record
	LANGUAGE SQL IMMUTABLE PARALLEL SAFE ROWS 1
	BEGIN ATOMIC
		SELECT weir.session_event_start(ts, gap),
			weir.session_event_end(ts, gap);
	END;

/* STABLE, so that no planner takes them for a constant */
CREATE FUNCTION weir.count_event_start(size pg_catalog.int8,
	slide pg_catalog.int8)
	RETURNS pg_catalog.int8
	AS 'MODULE_PATHNAME', 'weir_count_event'
	LANGUAGE C STABLE PARALLEL SAFE;
CREATE FUNCTION weir.count_event_end(size pg_catalog.int8,
	slide pg_catalog.int8)
	RETURNS pg_catalog.int8
	AS 'MODULE_PATHNAME', 'weir_count_event'
	LANGUAGE C STABLE PARALLEL SAFE;
CREATE FUNCTION weir.count_event(size pg_catalog.int8, slide pg_catalog.int8,
	OUT window_start pg_catalog.int8, OUT window_end pg_catalog.int8)
	RETURNS SETOF pg_catalog.record
	LANGUAGE SQL STABLE PARALLEL SAFE ROWS 1
	BEGIN ATOMIC
		SELECT weir.count_event_start(size, slide),
			weir.count_event_end(size, slide);
	END;


/* ---- aggregates: src/first_last.c ---- */

CREATE FUNCTION weir.first_accum(pg_catalog.bytea, pg_catalog.anyelement,
	pg_catalog.timestamptz)
	RETURNS pg_catalog.bytea
	AS 'MODULE_PATHNAME', 'weir_first_accum'
	LANGUAGE C IMMUTABLE PARALLEL SAFE;
CREATE FUNCTION weir.last_accum(pg_catalog.bytea, pg_catalog.anyelement,
	pg_catalog.timestamptz)
	RETURNS pg_catalog.bytea
	AS 'MODULE_PATHNAME', 'weir_last_accum'
	LANGUAGE C IMMUTABLE PARALLEL SAFE;
CREATE FUNCTION weir.first_last_final(pg_catalog.bytea, pg_catalog.anyelement,
	pg_catalog.timestamptz)
	RETURNS pg_catalog.anyelement
	AS 'MODULE_PATHNAME', 'weir_first_last_final'
	LANGUAGE C IMMUTABLE PARALLEL SAFE;
/* whoever makes aggregates of his own from these could forge their states */
REVOKE ALL ON FUNCTION weir.first_accum(pg_catalog.bytea, pg_catalog.anyelement,
	pg_catalog.timestamptz), weir.last_accum(pg_catalog.bytea, pg_catalog.anyelement,
	pg_catalog.timestamptz), weir.first_last_final(pg_catalog.bytea,
	pg_catalog.anyelement, pg_catalog.timestamptz) FROM PUBLIC;

CREATE AGGREGATE weir.first(value pg_catalog.anyelement, at pg_catalog.timestamptz) (
	SFUNC = weir.first_accum,
	STYPE = pg_catalog.bytea,
	FINALFUNC = weir.first_last_final,
	FINALFUNC_EXTRA
);
COMMENT ON AGGREGATE weir.first(pg_catalog.anyelement, pg_catalog.timestamptz) IS
	'value of the earliest row; of equal times, of the one that came first';

CREATE AGGREGATE weir.last(value pg_catalog.anyelement, at pg_catalog.timestamptz) (
	SFUNC = weir.last_accum,
	STYPE = pg_catalog.bytea,
	FINALFUNC = weir.first_last_final,
	FINALFUNC_EXTRA
);
COMMENT ON AGGREGATE weir.last(pg_catalog.anyelement, pg_catalog.timestamptz) IS
	'value of the latest row; of equal times, of the one that came last';

/*
 * Where the library is not preloaded none of this works.  Say so now: what comes
 * first, CREATE TABLE ... WITH (event_time = ...), core would refuse on its own,
 * before it loads the library, and without a hint.
 */
SELECT FROM weir.workers;
