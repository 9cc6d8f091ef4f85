/* tests/sim/engine_wire.c — sessions, and the network between them; see tests/sim/engine.h. */
#include "tests/sim/engine.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "transfer/frame.h"

#define PASSES_MAX 20000
#define LIE_ONE_IN 3 /* of what has content */
#define RECOVER_PAUSE_NS (10 * CLOCK_NS_PER_S)

/* --- what a session tells its host --- */

static void on_opened(struct session *session, const struct message_open *open, void *data)
{
	(void)session;
	(void)open;
	((struct end *)data)->opened = true;
}

static void on_greeted(struct session *session, bool rescan, void *data)
{
	struct end *e = data;

	(void)session;
	e->greeted = true;
	e->site->seen = e->site->seen && !rescan;
}

static void on_tell(struct session *session, const char *path, enum decide_action action, enum apply_result result, int error,
	void *data)
{
	const struct end *e = data;

	(void)session;
	tell(e->site->engine, "  %c: %s: %s, %s%s%s", e->site->name, path, decide_action_name(action), apply_result_name(result),
		error ? ": " : "", error ? file_error_text(error) : "");
}

static void on_dirty(struct session *session, const char *path, void *data)
{
	(void)session;
	(void)path;
	((struct end *)data)->site->dirty = true;
}

static void on_doubted(struct session *session, const char *path, void *data)
{
	struct site *s = ((struct end *)data)->site;

	(void)session;
	(void)path;
	s->dirty = true;
	s->distrust_ns = clock_wall_ns();
}

static void on_changed(struct session *session, void *data)
{
	struct end *e = data;
	struct engine *engine = e->site->engine;

	(void)session;
	e->changed_by_us = true;
	e->site->seen = false;
	for (unsigned i = 0; i < engine->n_wires; i++) {
		const struct wire *w = &engine->wires[i];

		if (w->used && w != e->wire && (w->end[0].site == e->site || w->end[1].site == e->site))
			engine->passed_on = true;
	}
}

/* The folder is recovered when all its sessions are over; but: one that knows by itself, or NULL. */
static void to_be_recovered(struct site *s, const struct session *but)
{
	s->broken = true;
	for (unsigned i = 0; i < WIRES_MAX; i++)
		for (int k = 0; k < 2; k++) {
			struct end *e = &s->engine->wires[i].end[k];

			if (!s->engine->wires[i].used || e->site != s || !e->session || e->session == but)
				continue;
			s->engine->wires[i].excused = true;
			session_fail(e->session, MESSAGE_FAIL_BUSY, -EBUSY, "being recovered");
		}
}

static void on_broken(struct session *session, int error, void *data)
{
	struct end *e = data;
	struct site *s = e->site;

	tell(s->engine, "  %c: a batch failed: %s", s->name, file_error_text(error));
	e->wire->excused = e->wire->excused || error == -EAGAIN; /* a user was in the way */
	to_be_recovered(s, session);
}

/* --- wires --- */

struct wire *wire_between(struct engine *e, const struct site *a, const struct site *b)
{
	for (unsigned i = 0; i < WIRES_MAX; i++) {
		struct wire *w = &e->wires[i];

		if (w->used && ((w->end[0].site == a && w->end[1].site == b) || (w->end[0].site == b && w->end[1].site == a)))
			return w;
	}
	return NULL;
}

struct wire *wire_new(struct engine *e, struct site *client, struct site *server, bool live, enum way way)
{
	struct wire *w = e->wires;

	while (w < e->wires + WIRES_MAX && w->used)
		w++;
	if (w == e->wires + WIRES_MAX)
		return NULL;
	*w = (struct wire){.used = true, .live = live, .liar = -1};
	if (e->n_wires <= (unsigned)(w - e->wires))
		e->n_wires = (unsigned)(w - e->wires) + 1;
	for (int i = 0; i < 2; i++) {
		struct end *end = &w->end[i];
		bool sends = way != (i ? WAY_PUSH : WAY_PULL), takes = way != (i ? WAY_PULL : WAY_PUSH);
		struct session_options o = {
			.client = i == 0,
			.replica = i == 0 ? client->replica : NULL,
			.sends = sends,
			.takes = takes,
			.live = live,
			.address = i == 0 ? server->mount : NULL,
			.preserve_owner = true,
			.grace_ns = e->grace_ns,
			.open = {.place = (char *)"/x", .sends = takes, .takes = sends, .live = live},
			.host = {.opened = on_opened, .greeted = on_greeted, .tell = on_tell, .dirty = on_dirty, .doubted = on_doubted, .changed = on_changed,
				.broken = on_broken, .data = end},
		};

		end->wire = w;
		end->site = i ? server : client;
		o.ignore = end->site->ignore;
		o.name = end->site->mount;
		sim_host_enter(end->site->host);
		if (session_new(&end->session, &o))
			wrong(e, WRONG_OTHER, "session_new");
	}
	return w;
}

static bool over(const struct end *e)
{
	struct session_status status;

	if (!e->session)
		return true;
	session_status(e->session, &status);
	return status.state == SESSION_ENDED;
}

static bool busy(const struct end *e)
{
	for (unsigned i = 0; i < SESSION_LANES; i++)
		if (e->taken[i])
			return true;
	return false;
}

static void hear_end(struct end *e)
{
	if (e->closed)
		return;
	e->closed = true;
	if (!e->session)
		return;
	sim_host_enter(e->site->host);
	session_input_end(e->session);
}

void wire_cut(struct wire *w)
{
	if (w->cut)
		return;
	tell(w->end[0].site->engine, "  the line of %c and %c is cut after %" PRIu64 " bytes", w->end[0].site->name,
		w->end[1].site->name, w->moved);
	w->cut = w->excused = true;
	for (int i = 0; i < 2; i++) {
		buf_clear(&w->pipe[i]);
		hear_end(&w->end[i]);
	}
}

void wires_excuse(struct site *s)
{
	for (unsigned i = 0; i < WIRES_MAX; i++)
		for (int k = 0; k < 2; k++)
			if (s->engine->wires[i].used && s->engine->wires[i].end[k].site == s)
				s->engine->wires[i].excused = true;
}

/* --- ends --- */

static void finish_job(struct end *e, unsigned lane)
{
	struct session_job *job = e->taken[lane];

	e->taken[lane] = NULL;
	e->site->meddled = false;
	session_job_run(job);
	session_job_done(e->session, job);
}

static void end_free(struct end *e)
{
	if (!e->session)
		return;
	sim_host_enter(e->site->host);
	for (unsigned i = 0; i < SESSION_LANES; i++)
		if (e->taken[i])
			finish_job(e, i);
	session_free(e->session);
	e->session = NULL;
}

/* Errors that two replicas may come to by themselves: connect again. */
static bool is_usual(const struct session_status *st)
{
	return st->peer_code == MESSAGE_FAIL_BUSY || st->peer_code == MESSAGE_FAIL_FOLDER_ID || st->peer_code == MESSAGE_FAIL_SAME;
}

static void judge_end_of(const struct wire *w, const struct end *e)
{
	struct engine *engine = e->site->engine;
	struct session_status st;

	if (!e->session)
		return;
	session_status(e->session, &st);
	tell(engine, "  %c: %s after %u rounds, %" PRIu64 " applied, %" PRIu64 " skipped%s%s", e->site->name,
		st.in_sync ? "in sync" : "not in sync", st.round, st.applied, st.skipped, *st.text ? ": " : "", st.text);
	if (st.failed && !w->excused && !engine->cloned && !is_usual(&st) && !w->end[0].site->excused && !w->end[1].site->excused)
		wrong(engine, WRONG_OTHER, "the session of %c with %c failed: %d %s", e->site->name,
			e == &w->end[0] ? w->end[1].site->name : w->end[0].site->name, st.error, st.text);
}

void wire_free(struct wire *w)
{
	struct engine *engine = w->end[0].site->engine;

	for (int i = 0; i < 2; i++)
		judge_end_of(w, &w->end[i]);
	w->used = false; /* what comes now is of no wire */
	while (engine->n_wires && !engine->wires[engine->n_wires - 1].used)
		engine->n_wires--;
	for (int i = 0; i < 2; i++) {
		end_free(&w->end[i]);
		buf_deinit(&w->pipe[i]);
	}
	frame_reader_free(w->said);
	frame_writer_free(w->lies);
}

bool wire_gone(const struct wire *w)
{
	for (int i = 0; i < 2; i++) {
		const struct end *e = &w->end[i];
		size_t n = 0;

		if (busy(e) || !over(e))
			return false;
		if (e->session)
			session_output(e->session, &n);
		if (!w->cut && (n || w->pipe[i].len) && !over(&w->end[!i]))
			return false;
	}
	return true;
}

void wires_of_site_end(struct site *s)
{
	for (unsigned i = 0; i < WIRES_MAX; i++)
		for (int k = 0; k < 2; k++) {
			struct wire *w = &s->engine->wires[i];

			if (!w->used || w->end[k].site != s)
				continue;
			w->excused = true;
			end_free(&w->end[k]);
		}
}

bool wires_heard(const struct site *s)
{
	for (unsigned j = 0; j < 2 * WIRES_MAX; j++) {
		const struct wire *w = &s->engine->wires[j / 2];

		if (w->used && w->end[j % 2].site == s && w->end[!(j % 2)].session)
			return true;
	}
	return false;
}

/* --- lies --- */

void wire_lie(struct wire *w, int end)
{
	struct engine *e = w->end[end].site->engine;

	tell(e, "  %c lies about content", w->end[end].site->name);
	w->liar = end;
	w->excused = true;
	frame_put_preface(&w->pipe[end]);
	if (frame_reader_new(&w->said, message_max_bytes) || frame_writer_new(&w->lies, 1))
		wrong(e, WRONG_OTHER, "out of memory");
}

static bool has_content(uint8_t type)
{
	return type == MESSAGE_DATA || type == MESSAGE_BULK || type == MESSAGE_PIECES || type == MESSAGE_NODES ||
	       type == MESSAGE_NODES_TOLD;
}

static void send_lies(struct wire *w, const uint8_t *p, size_t n)
{
	struct engine *e = w->end[w->liar].site->engine;
	const uint8_t *payload;
	uint8_t type;
	int r = frame_reader_feed(w->said, p, n);

	while (r == 0 && (r = frame_read(w->said, &type, &payload, &n)) == 0) {
		struct buf told = BUF_INIT;

		put_bytes(&told, payload, n);
		if (has_content(type) && n && !e->quiet && engine_one_in(e, LIE_ONE_IN))
			told.data[n - 1 - engine_below(e, engine_one_in(e, 2) ? 1 : n)] ^= (uint8_t)(1 + engine_below(e, 255));
		r = frame_write(w->lies, &w->pipe[w->liar], type, told.data, told.len, false);
		buf_deinit(&told);
	}
	if (r != FRAME_MORE)
		wrong(e, WRONG_OTHER, "%c says what is no frame", w->end[w->liar].site->name);
}

/* --- moving --- */

static bool send(struct wire *w, int i)
{
	struct end *e = &w->end[i];
	struct engine *engine = e->site->engine;
	const uint8_t *p;
	size_t n;

	p = session_output(e->session, &n);
	if (!n || w->pipe[i].len >= FEED_MAX_BYTES)
		return false;
	if (w->cut) {
		session_output_consumed(e->session, n);
		return true;
	}
	if (n > FEED_MAX_BYTES - w->pipe[i].len)
		n = FEED_MAX_BYTES - w->pipe[i].len;
	if (engine_one_in(engine, 4))
		n = 1 + engine_below(engine, n);
	if (i == w->liar)
		send_lies(w, p, n);
	else
		put_bytes(&w->pipe[i], p, n);
	session_output_consumed(e->session, n);
	return true;
}

static bool receive(struct wire *w, int i)
{
	struct end *e = &w->end[i];
	struct buf *pipe = &w->pipe[!i];
	struct engine *engine = e->site->engine;
	size_t n = pipe->len;

	if (!n || w->stalled[!i] || w->cut)
		return false;
	if (engine_one_in(engine, 4))
		n = 1 + engine_below(engine, n);
	if (w->cut_after && w->moved + n > w->cut_after)
		n = (size_t)(w->cut_after - w->moved);
	if (w->spoil_at > w->moved && w->spoil_at <= w->moved + n) {
		pipe->data[w->spoil_at - w->moved - 1] ^= (uint8_t)(1 + engine_below(engine, 255));
		w->excused = true;
		tell(engine, "  a byte to %c is changed on its way", e->site->name);
	}
	w->moved += n;
	if (n && !over(e))
		session_input(e->session, pipe->data, n);
	buf_consume(pipe, n);
	if (w->cut_after && w->moved == w->cut_after)
		wire_cut(w);
	return true;
}

static bool run_jobs(struct end *e)
{
	struct session_job *job;
	bool any = false;

	for (unsigned i = 0; i < SESSION_LANES; i++)
		if (e->taken[i]) {
			finish_job(e, i);
			any = true;
		}
	while (!site_died(e->site) && (job = session_next_job(e->session))) {
		unsigned i = 0;

		while (e->taken[i]) /* at most one of each lane is out */
			i++;
		e->taken[i] = job;
		any = true;
		if (!engine_one_in(e->site->engine, 4))
			finish_job(e, i);
	}
	return any;
}

/* As a daemon, which watches, and scans only what something was done to; or as a command, which scans. */
static bool scan_wanted(const struct site *s)
{
	return !s->seen || s->acted || s->dirty || s->excused || s->distrust_ns || engine_one_in(s->engine, 4);
}

/* What the host has to do for its session. */
static bool serve(struct end *e)
{
	struct site *s = e->site;

	if (e->opened) {
		e->opened = false;
		if (s->replica && !s->broken)
			session_attach(e->session, s->replica, s->ignore, true, true);
		else
			session_fail(e->session, MESSAGE_FAIL_BUSY, -EBUSY, "not now");
		return true;
	}
	if (e->greeted && !s->broken) {
		e->greeted = false;
		if (scan_wanted(s))
			site_scan(s);
		if (e->session && !site_died(s))
			session_ready(e->session);
		return true;
	}
	if (s->dirty && !s->broken) {
		site_scan(s);
		return true;
	}
	return false;
}

/* What this end has said is all delivered, and it will say no more. */
static bool hang_up(struct wire *w, int i)
{
	struct end *e = &w->end[i];
	size_t n = 0;

	if (e->session)
		session_output(e->session, &n);
	if (w->end[!i].closed || n || w->pipe[i].len || w->stalled[i] || busy(e) || !over(e))
		return false;
	hear_end(&w->end[!i]);
	return true;
}

static bool end_step(struct wire *w, int i)
{
	struct end *e = &w->end[i];
	bool any = false;

	if (e->site->paused)
		return false;
	if (engine_one_in(e->site->engine, 8))
		return true; /* another time */
	sim_host_enter(e->site->host);
	if (e->session)
		any = run_jobs(e);
	if (e->session && !site_died(e->site))
		any |= serve(e);
	if (e->session && !site_died(e->site)) {
		sim_host_enter(e->site->host);
		any |= send(w, i);
		any |= receive(w, i);
	}
	if (!site_died(e->site))
		any |= hang_up(w, i);
	return any;
}

/* Tell sessions what others did to their replica. */
static bool spread_changes(struct engine *e)
{
	bool any = false, changed = false;

	for (unsigned i = 0; i < e->n_wires; i++)
		for (int k = 0; e->wires[i].used && k < 2; k++) {
			struct end *from = &e->wires[i].end[k];

			if (!from->changed_by_us)
				continue;
			from->changed_by_us = false;
			for (unsigned j = 0; j < 2 * e->n_wires; j++) {
				struct end *to = &e->wires[j / 2].end[j % 2];

				if (!e->wires[j / 2].used || to == from || to->site != from->site || !to->session)
					continue;
				sim_host_enter(to->site->host);
				session_changed(to->session);
				any = true;
			}
		}
	for (unsigned i = 0; i < e->n_sites; i++)
		changed = changed || e->sites[i].changed;
	for (unsigned j = 0; changed && j < 2 * e->n_wires; j++) {
		struct end *to = &e->wires[j / 2].end[j % 2];

		if (!e->wires[j / 2].used || !to->site->changed || !to->session)
			continue;
		sim_host_enter(to->site->host);
		session_changed(to->session);
		any = true;
	}
	for (unsigned i = 0; i < e->n_sites; i++)
		e->sites[i].changed = false;
	return any;
}

static bool has_session(const struct site *s)
{
	for (unsigned j = 0; j < 2 * s->engine->n_wires; j++) {
		const struct wire *w = &s->engine->wires[j / 2];

		if (w->used && w->end[j % 2].site == s && w->end[j % 2].session)
			return true;
	}
	return false;
}

/* As a daemon does from time to time (syncd/folder.c). */
static void recover_again(struct site *s)
{
	if (!s->replica || !replica_unfinished(s->replica, "")) {
		s->recover_at_ns = 0;
	} else if (!s->recover_at_ns) {
		s->recover_at_ns = clock_boot_ns() + RECOVER_PAUSE_NS;
	} else if (!s->broken && clock_boot_ns() >= s->recover_at_ns) {
		s->recover_at_ns = 0;
		to_be_recovered(s, NULL);
	}
}

/* Machines that died start again, what was broken is recovered, wires on which all is over go. */
static bool tidy(struct engine *e)
{
	bool any = false;

	for (unsigned i = 0; i < e->n_sites; i++)
		if (site_died(&e->sites[i])) {
			site_revive(&e->sites[i]);
			any = true;
		}
	for (unsigned i = 0; i < e->n_wires; i++)
		if (e->wires[i].used && wire_gone(&e->wires[i])) {
			wire_free(&e->wires[i]);
			any = true;
		}
	for (unsigned i = 0; i < e->n_sites; i++)
		recover_again(&e->sites[i]);
	for (unsigned i = 0; i < e->n_sites; i++)
		if (e->sites[i].broken && e->sites[i].replica && !has_session(&e->sites[i])) {
			site_recover(&e->sites[i]);
			any = true;
		}
	oracle_check_taken(e);
	return any;
}

void wires_run(struct engine *e, unsigned passes)
{
	bool any = true;

	for (unsigned n = 0; any && n < passes; n++) {
		unsigned first = (unsigned)engine_below(e, 2 * WIRES_MAX);

		if (n == PASSES_MAX)
			wrong(e, WRONG_OTHER, "no end in sight");
		any = spread_changes(e);
		for (unsigned j = first; j < first + 2 * WIRES_MAX; j++) {
			struct wire *w = &e->wires[j / 2 % WIRES_MAX];

			if (j / 2 % WIRES_MAX < e->n_wires && w->used)
				any |= end_step(w, (int)(j % 2));
		}
		any |= tidy(e);
	}
}

void wires_tick(struct engine *e)
{
	for (unsigned j = 0; j < 2 * e->n_wires; j++) {
		struct end *end = &e->wires[j / 2].end[j % 2];

		if (!e->wires[j / 2].used || !end->session || end->site->paused)
			continue;
		sim_host_enter(end->site->host);
		session_tick(end->session, clock_monotonic_ns());
	}
}
