/*
 * transfer/session.c — a session's states, dispatch of its messages and jobs, and what its caller sees.
 *
 *   OPENING ──GREET both ways──▶ PREPARING ──session_ready──▶ ROUND n ──both DONE──▶ LIVE ──a change, or HELLO n+1──▶ ROUND n+1
 *
 * Everything that may be possible now is tried by session_step(), after each input, job and call: flags say what has
 * happened, and each step acts once when its flags are all there.
 */
#include "transfer/session.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/log.h"
#include "base/random.h"
#include "tombstones/anew.h"
#include "transfer/session_internal.h"

#define ZSTD_LEVEL 3
#define OUTPUT_MAX ((size_t)512 * 1024 * 1024) /* answers that the peer asks for and does not read */

/* --- small things --- */

bool session_we_send(const struct session *s)
{
	return s->options.sends && s->peer_takes;
}

bool session_we_take(const struct session *s)
{
	return s->options.takes && s->peer_sends;
}

int session_protocol_error(struct session *s, const char *why)
{
	if (!s->text[0])
		snprintf(s->text, sizeof(s->text), "the peer broke the protocol: %s", why);
	return -EBADMSG;
}

int session_prepare(struct frame_writer *w, struct buf *frames, uint8_t type, const union message *m)
{
	const struct message_info *info = message_info(type);
	size_t start = frame_begin(frames);
	int r = message_encode(type, m, frames);

	if (r == 0 && frames->len - start - FRAME_HEADER_BYTES > info->max_bytes)
		r = -EMSGSIZE;
	if (r == 0)
		return frame_end(w, frames, start, type, info->compress);
	frames->len = start;
	return r;
}

int session_send_prepared(struct session *s, struct buf *frames)
{
	if (s->out.len - s->out_at > OUTPUT_MAX)
		return session_protocol_error(s, "it asks and does not read the answers");
	s->last_out_ns = s->now_ns;
	return frame_write_prepared(s->writer, &s->out, frames);
}

int session_send(struct session *s, uint8_t type, const union message *m)
{
	struct buf frame = BUF_INIT;
	int r = session_prepare(s->writer, &frame, type, m);

	if (r == 0)
		r = session_send_prepared(s, &frame);
	buf_deinit(&frame);
	return r;
}

struct session_job *session_job_new(struct session *s, enum job_type type, enum session_lane lane)
{
	struct session_job *job = calloc(1, sizeof(*job));

	if (job) {
		job->type = type;
		job->lane = lane;
		job->session = s;
	}
	return job;
}

void session_job_queue(struct session *s, struct session_job *job)
{
	*s->queue_tail[job->lane] = job;
	s->queue_tail[job->lane] = &job->next;
}

void session_job_free(struct session_job *job)
{
	if (!job)
		return;
	message_deinit(MESSAGE_LINEAGE, &job->lineage);
	knowledge_deinit(&job->peer_knowledge);
	while (job->ops) {
		struct stage_op *op = job->ops;

		job->ops = op->next;
		fetch_op_free(job->session, op);
	}
	serve_requests_free(job->requests);
	message_deinit(MESSAGE_PUSH, &job->push);
	buf_deinit(&job->frames);
	free(job);
}

/* A client that has joined says HELLO first, be it with news: what they change here is in our answer. */
static bool awaits_client(const struct session *s)
{
	return !s->options.client && s->state == SESSION_PREPARING && !s->hello_received && s->peer_folder.standing == STORE_JOINED &&
	       frame_reader_version(s->reader) >= FRAME_VERSION_FIRST;
}

int session_step(struct session *s)
{
	enum session_state before;
	int r = 0;

	do {
		before = s->state;
		if (s->state == SESSION_OPENING && s->greeted && s->replica && s->greet_sent && !s->joining &&
				!s->renewing)
			r = greet_settle(s);
		if (r == 0 && s->state != SESSION_ENDED)
			r = greet_check_folder(s);
		/* A joined client says HELLO without waiting for the peer's GREET: one round trip less. If it has news, it waits: they are
		 * pushed with HELLO, if it is the peer that they are meant for. */
		if (r == 0 && s->ready && s->round == 0 && !awaits_client(s) &&
				(s->state == SESSION_PREPARING ||
					(s->state == SESSION_OPENING && s->options.client && !s->joining && !s->renewing &&
						s->folder.standing == STORE_JOINED && !push_awaits_greeting(s)))) {
			if (s->state == SESSION_PREPARING || !s->hello_sent) {
				bool opening = s->state == SESSION_OPENING, wait;

				r = round_record_anew(s, &wait);
				if (r == 0 && wait)
					return 0;
				if (r == 0)
					r = round_start(s);
				if (opening && r == 0)
					s->state = SESSION_OPENING;
			}
		} else if (r == 0 && s->state == SESSION_PREPARING && s->round == 1 && s->hello_sent) {
			s->state = SESSION_ROUND; /* the early HELLO */
		}
		if (r == 0 && s->state == SESSION_ROUND)
			r = round_step(s);
		if (r == 0 && s->state == SESSION_LIVE)
			r = round_live_step(s);
		if (r == 0 && s->replica)
			r = serve_pump(s);
	} while (r == 0 && s->state != before && s->state != SESSION_ENDED);
	return r;
}

/* --- the end --- */

static void end_now(struct session *s)
{
	s->state = SESSION_ENDED;
	round_end_taking(s);
}

void session_fail(struct session *s, enum message_fail_code code, int error, const char *text)
{
	union message m = {.fail = {.code = (uint16_t)code}};

	if (s->state == SESSION_ENDED)
		return;
	s->failed = true;
	s->error = error;
	s->code = (uint16_t)code;
	if (text != s->text)
		snprintf(s->text, sizeof(s->text), "%s", text);
	m.fail.text = s->text;
	session_send(s, MESSAGE_FAIL, &m);
	end_now(s);
}

static int failed(struct session *s, int r)
{
	if (r >= 0 || s->state == SESSION_ENDED)
		return r;
	if (!s->text[0])
		snprintf(s->text, sizeof(s->text), "%s", file_error_text(r));
	session_fail(s,
		r == -EBADMSG ? MESSAGE_FAIL_PROTOCOL :
		r == -ENOSPC  ? MESSAGE_FAIL_SPACE :
		r == -EAGAIN  ? MESSAGE_FAIL_BUSY :
				MESSAGE_FAIL_INTERNAL,
		r, s->text);
	return r;
}

int session_bye(struct session *s)
{
	union message m = {0};

	if (s->bye_sent)
		return 0;
	s->bye_sent = true;
	return session_send(s, MESSAGE_BYE, &m);
}

/* A side that only takes may be ahead by its records, and yet show all that the peer has, and nothing else. */
static int handle_fail(struct session *s, union message *m)
{
	char text[MESSAGE_TEXT_BYTES_MAX - 64];

	/* The peer's words are escaped: they go to a terminal or a log. */
	text_quote(text, sizeof(text), m->fail.text);
	s->failed = true;
	s->code = m->fail.code;
	s->error = m->fail.code == MESSAGE_FAIL_SPACE ? -ENOSPC : -ECONNABORTED;
	snprintf(s->text, sizeof(s->text), "the other side ended the session: %s", text);
	end_now(s);
	return s->error;
}

static int handle_bye(struct session *s)
{
	int r;

	if (!s->bye_sent)
		snprintf(s->text, sizeof(s->text), "the other side ended the session in order");
	r = session_bye(s);
	end_now(s);
	return r;
}

static int handle_keepalive(struct session *s, union message *m)
{
	(void)s;
	(void)m;
	return 0;
}

static int handle_bye_message(struct session *s, union message *m)
{
	(void)m;
	return handle_bye(s);
}

static int handle_entries(struct session *s, union message *m)
{
	return compare_entries(s, &m->entries);
}

static int handle_pair(struct session *s, union message *m)
{
	return compare_rows(s, MESSAGE_PAIR, m);
}

static int handle_rows(struct session *s, union message *m)
{
	return compare_rows(s, MESSAGE_ROWS, m);
}

static int handle_match(struct session *s, union message *m)
{
	return compare_rows(s, MESSAGE_MATCH, m);
}

static int handle_matched(struct session *s, union message *m)
{
	return compare_rows(s, MESSAGE_MATCHED, m);
}

static int handle_nodes_ask(struct session *s, union message *m)
{
	return serve_nodes(s, &m->nodes_ask);
}

static int handle_nodes_named(struct session *s, union message *m)
{
	if (frame_reader_version(s->reader) < FRAME_VERSION_TOLD)
		return session_protocol_error(s, "a NODES_NAMED, of which this version knows nothing");
	return serve_nodes(s, &m->nodes_ask);
}

static int handle_nodes(struct session *s, union message *m)
{
	return fetch_nodes(s, &m->nodes);
}

static int handle_fetch(struct session *s, union message *m)
{
	return serve_fetch(s, &m->fetch);
}

static int handle_data(struct session *s, union message *m)
{
	return fetch_data(s, &m->data);
}

static int handle_bulk(struct session *s, union message *m)
{
	int r = 0;

	if (frame_reader_version(s->reader) < FRAME_VERSION_BULK)
		return session_protocol_error(s, "a BULK, of which this version knows nothing");
	for (size_t i = 0; i < m->bulk.n && r == 0; i++)
		r = fetch_data(s, &m->bulk.v[i]);
	return r;
}

static int handle_pieces(struct session *s, union message *m)
{
	return fetch_pieces(s, &m->pieces);
}

static int handle_gone(struct session *s, union message *m)
{
	return fetch_gone(s, &m->gone);
}

#define IN(state) (1u << (state))
#define ANY (IN(SESSION_OPENING) | IN(SESSION_PREPARING) | IN(SESSION_ROUND) | IN(SESSION_LIVE))

/* Which message may come in which state, and who deals with it; the rest of the table is in message.c. */
static const struct {
	unsigned states;
	int (*handle)(struct session *s, union message *m);
} handlers[MESSAGE_TYPES] = {
	[MESSAGE_OPEN] = {IN(SESSION_OPENING), greet_handle_open},
	[MESSAGE_GREET] = {IN(SESSION_OPENING), greet_handle_greet},
	[MESSAGE_LINEAGE] = {ANY, round_handle_lineage},
	[MESSAGE_HELLO] = {ANY, round_handle_hello},
	[MESSAGE_PUSH] = {IN(SESSION_PREPARING) | IN(SESSION_ROUND) | IN(SESSION_LIVE), round_handle_push},
	[MESSAGE_ASK] = {IN(SESSION_ROUND), compare_ask},
	[MESSAGE_ENTRIES] = {IN(SESSION_ROUND), handle_entries},
	[MESSAGE_PAIR] = {IN(SESSION_ROUND), handle_pair},
	[MESSAGE_ROWS] = {IN(SESSION_ROUND), handle_rows},
	[MESSAGE_MATCH] = {IN(SESSION_ROUND), handle_match},
	[MESSAGE_MATCHED] = {IN(SESSION_ROUND), handle_matched},
	[MESSAGE_WALKED] = {IN(SESSION_ROUND), round_handle_walked},
	[MESSAGE_NODES_ASK] = {IN(SESSION_ROUND) | IN(SESSION_LIVE), handle_nodes_ask},
	[MESSAGE_NODES_NAMED] = {IN(SESSION_ROUND) | IN(SESSION_LIVE), handle_nodes_named},
	[MESSAGE_NODES] = {IN(SESSION_ROUND), handle_nodes},
	[MESSAGE_NODES_TOLD] = {IN(SESSION_ROUND), handle_nodes},
	[MESSAGE_FETCH] = {IN(SESSION_ROUND) | IN(SESSION_LIVE), handle_fetch},
	[MESSAGE_DATA] = {IN(SESSION_ROUND), handle_data},
	[MESSAGE_BULK] = {IN(SESSION_ROUND), handle_bulk},
	[MESSAGE_PIECES] = {IN(SESSION_ROUND), handle_pieces},
	[MESSAGE_GONE] = {IN(SESSION_ROUND), handle_gone},
	[MESSAGE_DONE] = {IN(SESSION_ROUND) | IN(SESSION_LIVE), round_handle_done},
	[MESSAGE_KEEPALIVE] = {ANY, handle_keepalive},
	[MESSAGE_FAIL] = {ANY, handle_fail},
	[MESSAGE_BYE] = {ANY, handle_bye_message},
};

static int dispatch(struct session *s, uint8_t type, const uint8_t *payload, size_t n)
{
	union message m;
	char why[80];
	int r;

	if (!(handlers[type].states & IN(s->state))) {
		snprintf(why, sizeof(why), "%s out of place", message_info(type)->name);
		return session_protocol_error(s, why);
	}
	r = message_decode(type, payload, n, &m);
	if (r < 0) {
		snprintf(why, sizeof(why), "a malformed %s", message_info(type)->name);
		return r == -EBADMSG ? session_protocol_error(s, why) : r;
	}
	r = handlers[type].handle(s, &m);
	message_deinit(type, &m);
	return r;
}

/* --- jobs --- */

void session_job_run(struct session_job *job)
{
	struct replica *replica = job->session->replica;

	switch (job->type) {
	case JOB_JOIN:
		job->error = replica_join(replica, &job->was, &job->now);
		break;
	case JOB_RENEW:
		/* Writers take the index's lock first and the store's inside: the writer lock keeps the two orders apart. */
		replica_lock(replica);
		job->error = store_renew_replica(replica_store(replica));
		replica_unlock(replica);
		replica_end_incarnation(replica);
		break;
	case JOB_LINEAGE:
		learn_run_lineage(job);
		break;
	case JOB_ANEW:
		job->error = anew_run(replica, &job->records);
		break;
	case JOB_LEARN:
		learn_run(job);
		break;
	case JOB_PLAN:
		fetch_run_plan(job);
		break;
	case JOB_STAGE:
		fetch_run_stage(job);
		break;
	case JOB_APPLY:
		fetch_run_apply(job);
		break;
	case JOB_READ:
		serve_run_read(job);
		break;
	case JOB_PUSH:
		push_run(job);
		break;
	}
}

static int job_result(struct session *s, struct session_job *job)
{
	switch (job->type) {
	case JOB_JOIN:
		return greet_done_join(s, job);
	case JOB_RENEW:
		return greet_done_renew(s, job->error);
	case JOB_LINEAGE:
		s->lineage_jobs--;
		return job->error == -EBADMSG ? session_protocol_error(s, "contradictory lineage") : job->error;
	case JOB_ANEW:
		s->recording_anew = false;
		if (job->records && s->options.host.changed)
			s->options.host.changed(s, s->options.host.data);
		return job->error;
	case JOB_LEARN:
		s->learned = true;
		round_end_taking(s);
		if (job->full)
			s->skipped_overflow = true;
		s->progress = s->progress || job->stale; /* another round knows */
		return job->error;
	case JOB_PLAN:
		return fetch_done_plan(s, job);
	case JOB_STAGE:
		return fetch_done_stage(s, job);
	case JOB_APPLY:
		return fetch_done_apply(s, job);
	case JOB_READ:
		return serve_done_read(s, job);
	case JOB_PUSH:
		return push_done(s, job);
	}
	return 0;
}

struct session_job *session_next_job(struct session *s)
{
	for (unsigned lane = 0; lane < SESSION_LANES; lane++) {
		struct session_job *job = s->queue[lane];

		if (!job || s->lane_busy[lane] || s->state == SESSION_ENDED)
			continue;
		s->queue[lane] = job->next;
		if (!job->next)
			s->queue_tail[lane] = &s->queue[lane];
		job->next = NULL;
		s->lane_busy[lane] = true;
		return job;
	}
	return NULL;
}

/* The session ended while the job ran: what it did to the replica counts all the same. */
static void job_after_end(struct session *s, const struct session_job *job)
{
	const struct session_host *host = &s->options.host;

	if (job->type != JOB_APPLY)
		return;
	if (job->error < 0 && host->broken)
		host->broken(s, job->error, host->data);
	else if (job->error == 0 && host->changed)
		host->changed(s, host->data);
}

int session_job_done(struct session *s, struct session_job *job)
{
	int r = 0;

	s->lane_busy[job->lane] = false;
	if (s->state == SESSION_ENDED)
		job_after_end(s, job);
	else
		r = job_result(s, job);
	session_job_free(job);
	if (s->state == SESSION_ENDED)
		return 0;
	if (r >= 0)
		r = session_step(s);
	return failed(s, r);
}

/* --- the caller's side --- */

int session_new(struct session **ret, const struct session_options *options)
{
	struct session *s = calloc(1, sizeof(*s));
	int r;

	if (!s)
		return -ENOMEM;
	s->options = *options;
	if (!s->options.output_high)
		s->options.output_high = SESSION_OUTPUT_HIGH;
	if (!s->options.window_bytes)
		s->options.window_bytes = SESSION_WINDOW_BYTES;
	s->options.open.place = options->open.place ? strdup(options->open.place) : NULL;
	s->options.open.version = NULL;
	s->options.address = options->address ? strdup(options->address) : NULL;
	s->replica = options->replica;
	s->ignore = options->ignore;
	s->nonce = random_id();
	s->level = SERVE_LEVEL_FIRST;
	s->fetch_tail = &s->fetch_head;
	s->fetches_tail = &s->fetches;
	s->tree_tail = &s->tree_head;
	s->ops_tail = &s->ops_head;
	s->rows_tail = &s->rows_head;
	s->serve_tail = &s->serve_head;
	for (unsigned lane = 0; lane < SESSION_LANES; lane++)
		s->queue_tail[lane] = &s->queue[lane];
	s->now_ns = s->last_in_ns = s->last_out_ns = s->opening_ns = clock_monotonic_ns();
	r = frame_reader_new(&s->reader, message_max_bytes);
	if (r == 0)
		r = frame_writer_new(&s->writer, ZSTD_LEVEL);
	if (r == 0)
		r = frame_writer_new(&s->read_writer, ZSTD_LEVEL);
	if (r == 0)
		r = reuse_new(&s->reuse);
	if (r == 0 && options->plain) {
		frame_writer_plain(s->writer);
		frame_writer_plain(s->read_writer);
	}
	if (r == 0) {
		frame_put_preface(&s->out);
		r = buf_error(&s->out);
	}
	if (r == 0 && options->client) {
		s->opened = true;
		r = greet_open(s);
		if (r == 0)
			r = greet_send(s);
	}
	if (r < 0) {
		session_free(s);
		return r;
	}
	*ret = s;
	return 0;
}

void session_free(struct session *s)
{
	if (!s)
		return;
	for (unsigned lane = 0; lane < SESSION_LANES; lane++) {
		assert(!s->lane_busy[lane]);
		while (s->queue[lane]) {
			struct session_job *job = s->queue[lane];

			s->queue[lane] = job->next;
			session_job_free(job);
		}
	}
	if (s->taking)
		(void)replica_round_over(s->replica);
	compare_reset(s);
	push_reset(s);
	fetch_reset(s);
	serve_reset(s);
	round_forget_skipped(s);
	free(s->skipped);
	knowledge_deinit(&s->peer_knowledge);
	frame_reader_free(s->reader);
	frame_writer_free(s->writer);
	frame_writer_free(s->read_writer);
	reuse_free(s->reuse);
	buf_deinit(&s->out);
	free(s->peer_name);
	free(s->peer_version);
	free(s->options.open.place);
	free((char *)s->options.address);
	free(s);
}

int session_attach(struct session *s, struct replica *replica, const struct ignore *ignore, bool sends, bool takes)
{
	int r;

	if (s->state == SESSION_ENDED)
		return -ECANCELED;
	s->replica = replica;
	s->ignore = ignore;
	s->options.sends = sends;
	s->options.takes = takes;
	s->opening_ns = s->now_ns;
	r = greet_send(s);
	if (r == 0)
		r = session_step(s);
	return failed(s, r);
}

void session_adopt(struct session *s, int64_t grace_ns, bool preserve_owner, bool confirmed, const struct decide_policy *policy)
{
	s->options.grace_ns = grace_ns;
	s->options.preserve_owner = preserve_owner;
	s->options.confirmed = confirmed;
	s->options.policy = *policy;
}

int session_check(struct session *s)
{
	if (s->state != SESSION_LIVE || s->bye_sent)
		return 0;
	s->local_changed = false;
	return failed(s, round_start(s));
}

int session_ready(struct session *s)
{
	s->ready = true;
	return s->state == SESSION_ENDED ? 0 : failed(s, session_step(s));
}

int session_changed(struct session *s)
{
	s->local_changed = true;
	return s->state == SESSION_LIVE ? failed(s, session_step(s)) : 0;
}

int session_confirm(struct session *s)
{
	s->options.confirmed = true;
	s->confirmed_until = s->round + 1;
	s->in_sync = false;
	return session_changed(s);
}

int session_finish(struct session *s)
{
	if (s->state == SESSION_ENDED)
		return 0;
	s->finishing = true;
	return s->state == SESSION_ROUND ? 0 : failed(s, session_bye(s));
}

static int not_syncd(struct session *s)
{
	const char *garbage = frame_reader_garbage(s->reader);

	snprintf(s->text, sizeof(s->text), "the other side does not speak syncd's protocol; it said %s", quoted(garbage));
	s->failed = true;
	s->error = -EPROTO;
	end_now(s);
	return -EPROTO;
}

static int no_common_version(struct session *s)
{
	uint8_t min, max;

	frame_reader_versions(s->reader, &min, &max);
	snprintf(s->text, sizeof(s->text),
		"the other side speaks versions %u to %u of the protocol, this side %u to %u: install the same syncd on both", min,
		max, FRAME_VERSION_MIN, FRAME_VERSION_MAX);
	s->failed = true;
	s->error = -EPROTONOSUPPORT;
	end_now(s);
	return -EPROTONOSUPPORT;
}

int session_input(struct session *s, const void *p, size_t n)
{
	const uint8_t *bytes = p;
	int r = 0;

	if (s->state == SESSION_ENDED)
		return s->error;
	s->last_in_ns = s->now_ns;
	if (!s->bytes_in)
		s->opening_ns = s->now_ns;
	s->bytes_in += n;
	while (n && r >= 0) {
		size_t part = n < 65536 ? n : 65536;

		r = frame_reader_feed(s->reader, bytes, part);
		bytes += part;
		n -= part;
		while (r == 0 && s->state != SESSION_ENDED) {
			const uint8_t *payload;
			size_t length;
			uint8_t type;

			r = frame_read(s->reader, &type, &payload, &length);
			if (r == -EBADMSG)
				session_protocol_error(s, "a damaged frame");
			if (r == 0)
				r = dispatch(s, type, payload, length);
			if (r == 0 && s->state != SESSION_ENDED)
				r = session_step(s);
		}
		if (s->state == SESSION_ENDED)
			return s->error;
		if (r == FRAME_NOT_SYNCD)
			return not_syncd(s);
		if (r == FRAME_VERSION)
			return no_common_version(s);
	}
	return failed(s, r);
}

void session_input_end(struct session *s)
{
	if (s->state == SESSION_ENDED)
		return;
	end_now(s);
	if (s->bye_sent)
		return;
	s->failed = true;
	s->error = -EPIPE;
	snprintf(s->text, sizeof(s->text), "the connection was closed by the other side");
}

const uint8_t *session_output(const struct session *s, size_t *ret_n)
{
	*ret_n = s->out.len - s->out_at;
	return s->out.data ? s->out.data + s->out_at : NULL;
}

int session_output_consumed(struct session *s, size_t n)
{
	s->bytes_out += n;
	s->out_at += n;
	if (s->out_at >= s->out.len - s->out_at) {
		buf_consume(&s->out, s->out_at);
		s->out_at = 0;
	}
	return s->state == SESSION_ENDED ? 0 : failed(s, session_step(s));
}

int session_tick(struct session *s, int64_t monotonic_ns)
{
	union message m = {0};
	int r = 0;

	s->now_ns = monotonic_ns;
	if (s->state == SESSION_ENDED)
		return 0;
	if (monotonic_ns - s->last_in_ns > SESSION_IDLE_NS) {
		snprintf(s->text, sizeof(s->text), "nothing was heard from the other side for %d s",
			(int)(SESSION_IDLE_NS / CLOCK_NS_PER_S));
		return failed(s, -ETIMEDOUT);
	}
	if (s->state == SESSION_OPENING && !s->joining && !s->renewing && monotonic_ns - s->opening_ns > SESSION_IDLE_NS) {
		snprintf(s->text, sizeof(s->text), "the other side has not said within %d s who it is",
			(int)(SESSION_IDLE_NS / CLOCK_NS_PER_S));
		return failed(s, -ETIMEDOUT);
	}
	r = greet_check_folder(s);
	if (r == 0 && monotonic_ns - s->last_out_ns > SESSION_KEEPALIVE_NS)
		r = session_send(s, MESSAGE_KEEPALIVE, &m);
	return failed(s, r);
}

void session_status(const struct session *s, struct session_status *ret)
{
	*ret = (struct session_status){
		.state = s->state,
		.in_sync = s->in_sync,
		.failed = s->failed,
		.error = s->error,
		.peer_code = s->code,
		.stuck = s->stuck,
		.round = s->round,
		.peer_replica = s->peer_replica,
		.peer_name = s->peer_name ? s->peer_name : "",
		.peer_version = s->peer_version ? s->peer_version : "",
		.text = s->text,
		.root = s->done_root,
		.peer_root = s->peer_done_root,
		.bytes_in = s->bytes_in,
		.bytes_out = s->bytes_out,
		.content_in = s->content_in,
		.content_out = s->content_out,
		.applied = s->applied,
		.conflicts = s->conflicts,
		.skipped = s->skipped_count,
		.held = s->held_count,
		.peer_skipped = s->peer_skipped,
		.peer_held = s->peer_held + s->peer_disk_held,
		.full = s->full_count,
		.peer_full = s->peer_full,
		.differences = s->differences,
		.pending = s->pending,
		.policy_differs = s->policy_differs,
		.ignore_differs = s->ignore_differs,
	};
}
