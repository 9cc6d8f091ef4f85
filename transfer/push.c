/*
 * transfer/push.c — what changed here since the peer had all, sent with the HELLO that begins a round.
 *
 * When both sides' roots were equal in a round, as it began or at its end, the peer has what we had at `fed_seq`. What changed since stands in the
 * index's list of changes: if it is not much, a PUSH takes it along, and the peer deals with it before it says HELLO. If the roots
 * are equal then, the round is over without a walk; whatever is odd, left out or skipped is found by the comparison that follows.
 *
 * In a session's first round it is what changed since the last session with that peer (tombstones/places.h), with the incarnations
 * that it may not know; the HELLO of a client that has such news therefore waits for the peer's GREET. What is remembered may be wrong in
 * any way: too much is pushed then, or too little, and compared.
 *
 * No rule of knowledge is new here. The rows, the root and K are of one transaction of the sender's; the taker decides by them as by
 * rows of a comparison that was cut off after them: it joins no K because of them, remembers no exception, and infers nothing from
 * absence. K is joined by the round, by its own rules.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "tombstones/places.h"
#include "transfer/session_internal.h"

#define CHANGES_MAX (4 * MESSAGE_PUSHED_MAX) /* with those that came from the peer itself */
#define CONTENT_BYTES_MAX (256 * 1024)	     /* in one PUSH */
#define FIRST_BYTES_MAX 512		     /* of a content, in a first round */
#define LINEAGE_AHEAD_MAX 64

/* --- what we have --- */

int push_begin(struct session *s)
{
	struct session_job *job = session_job_new(s, JOB_PUSH, SESSION_LANE_READ);

	if (!job)
		return -ENOMEM;
	job->push.push.hello = round_hello(s);
	s->composing = true;
	session_job_queue(s, job);
	return 0;
}

enum { PUSH_TOO_MANY = 1, PUSH_NEWS };

struct compose {
	struct session *s;
	struct index_txn *t;
	struct message_push *m;
	uint64_t peer; /* what came from it is left out */
	size_t cap, bytes, seen;
};

/* 0, PUSH_TOO_MANY, or PUSH_NEWS: the row has a record that the peer did not tell. */
static int look_at_change(struct compose *c, const char *path, struct row *ret)
{
	int r = index_get(c->t, path, ret);

	if (r < 0)
		return r;
	if (++c->seen > CHANGES_MAX)
		return PUSH_TOO_MANY;
	return r == 0 && row_has_record(ret) && ret->source != c->peer ? PUSH_NEWS : 0;
}

static int add_change(uint64_t seq, const char *path, void *data)
{
	struct compose *c = data;
	struct message_push *m = c->m;
	struct message_pushed *row;
	cleanup(row_deinit) struct row ours = {0};
	int r = look_at_change(c, path, &ours);

	(void)seq;
	if (r != PUSH_NEWS)
		return r;
	c->bytes += strlen(path) + compare_about_bytes(&ours.record);
	if (m->n == MESSAGE_PUSHED_MAX || c->bytes > MESSAGE_SPLIT_BYTES)
		return PUSH_TOO_MANY;
	r = array_reserve(&m->rows, &c->cap, m->n + 1, sizeof(*m->rows));
	if (r < 0)
		return r;
	row = &m->rows[m->n];
	*row = (struct message_pushed){.path = strdup(path)};
	if (!row->path)
		return -ENOMEM;
	m->n++;
	row->record = ours.record;
	memset(&ours.record, 0, sizeof(ours.record));
	return 0;
}

static int compare_rows_by_path(const void *a, const void *b)
{
	return strcmp(((const struct message_pushed *)a)->path, ((const struct message_pushed *)b)->path);
}

/* In the first round: of our newest incarnations those that the peer is not known to have heard of. */
static int add_lineage(struct session_job *job, struct index_txn *t)
{
	struct session *s = job->session;
	const struct version_lineage *l = replica_lineage(s->replica);
	struct message_lineage *m = &job->lineage.lineage;
	cleanup(members_deinit) struct members members = {0};
	const struct member *peer;
	int r = replica_members_read(t, &members);

	m->v = calloc(LINEAGE_AHEAD_MAX, sizeof(*m->v));
	if (r < 0 || !m->v)
		return r < 0 ? r : -ENOMEM;
	peer = members_find(&members, s->peer_replica);
	for (size_t i = job->n_lineage < LINEAGE_AHEAD_MAX ? 0 : job->n_lineage - LINEAGE_AHEAD_MAX; i < job->n_lineage && peer; i++) {
		const struct version_incarnation *in = version_lineage_at(l, i);

		if (!version_vector_has(&peer->k, (struct version_dot){in->inc, in->from + 1}, l))
			m->v[m->n++] = *in;
	}
	return 0;
}

static int read_changes(struct session_job *job)
{
	struct session *s = job->session;
	struct message_push *m = &job->push.push;
	struct compose c = {.s = s, .m = m, .peer = s->peer_replica};
	int r = index_begin_read(replica_index(s->replica), &c.t);

	if (r < 0)
		return r;
	r = index_changes(c.t, s->fed_seq, add_change, &c);
	job->n_lineage = version_lineage_count(replica_lineage(s->replica));
	if (r == 0 && m->n)
		r = round_fill_hello(s, c.t, job->n_lineage, &m->hello, &job->seq);
	if (r == 0 && m->n && m->hello.round == 1)
		r = add_lineage(job, c.t);
	index_abort(c.t);
	return r;
}

static int is_news(uint64_t seq, const char *path, void *data)
{
	struct compose *c = data;
	cleanup(row_deinit) struct row ours = {0};

	(void)seq;
	return look_at_change(c, path, &ours);
}

/* Where the peer that greeted us was met last; before it did, whoever was met at our address. */
static const struct place_met *find_peer(const struct session *s, const struct places *places)
{
	const struct place_met *met = NULL;

	if (!s->greeted)
		return places_find(places, s->options.address);
	for (size_t i = 0; i < places->n; i++)
		if (places->v[i].replica == s->peer_replica && (!met || met->seq < places->v[i].seq))
			met = &places->v[i];
	return met;
}

/* Also, if nobody was met at that address: it may be another one's that we know. */
static bool has_news(struct session *s)
{
	struct compose c = {.s = s};
	cleanup(places_deinit) struct places places = {0};
	const struct place_met *met = NULL;
	int r;

	if (!s->options.address || !s->options.sends || index_begin_read(replica_index(s->replica), &c.t) < 0)
		return false;
	r = places_read(c.t, &places);
	if (r == 0)
		met = find_peer(s, &places);
	if (met && met->seq) {
		s->fed_seq = met->seq;
		c.peer = met->replica;
		r = index_changes(c.t, s->fed_seq, is_news, &c);
	}
	index_abort(c.t);
	return met ? r == PUSH_NEWS : !s->greeted && places.n;
}

bool push_awaits_greeting(struct session *s)
{
	if (s->first == FIRST_UNKNOWN)
		s->first = has_news(s) ? FIRST_NEWS : FIRST_NOTHING;
	return s->first == FIRST_NEWS;
}

bool push_possible(struct session *s)
{
	if (!session_we_send(s))
		return false;
	if (s->round > 1)
		return s->fed && frame_reader_version(s->reader) >= FRAME_VERSION_PUSH;
	return s->peer_folder.standing == STORE_JOINED && frame_reader_version(s->reader) >= FRAME_VERSION_FIRST && has_news(s);
}

/* How long the contents are that go along. In a first round short ones, as the peer may have an older version, of which pieces are named
 * where that pays; and none where something was deleted, as what is new may have been moved. */
static uint64_t content_max(const struct message_push *m)
{
	if (m->hello.round > 1)
		return MESSAGE_SMALL_BYTES_MAX;
	for (size_t i = 0; i < m->n; i++)
		if (!m->rows[i].record.live)
			return 0;
	return FIRST_BYTES_MAX;
}

/* What was written since has another hash: it is left out. */
static void add_contents(struct session_job *job)
{
	struct message_push *m = &job->push.push;
	uint64_t max = content_max(m);

	for (size_t i = 0; i < m->n; i++) {
		struct message_pushed *row = &m->rows[i];
		const struct record *record = &row->record;
		size_t size = (size_t)record->content.size;

		if (!record->live || record->kind != RECORD_FILE || record->content.size > max || !size ||
				job->content + size > CONTENT_BYTES_MAX)
			continue;
		row->bytes = serve_small(job->session->replica, row->path, &record->content);
		if (row->bytes) {
			row->n = size;
			job->content += size;
		}
	}
}

void push_run(struct session_job *job)
{
	struct message_push *m = &job->push.push;
	int r = read_changes(job);

	if (r < 0 || r == PUSH_TOO_MANY || !m->n) {
		job->error = r < 0 ? r : 0;
		return;
	}
	qsort(m->rows, m->n, sizeof(*m->rows), compare_rows_by_path);
	add_contents(job);
	job->error = session_prepare(job->session->read_writer, &job->frames, MESSAGE_PUSH, &job->push);
	if (job->error == -EMSGSIZE)
		job->error = 0;
}

/* Without frames there is nothing to be pushed, or too much. */
int push_done(struct session *s, struct session_job *job)
{
	int r = job->error;

	s->composing = false;
	if (r == 0 && !job->frames.len)
		return round_send_hello(s);
	if (r == 0 && s->round == 1) {
		s->lineage_shown = job->n_lineage;
		r = job->lineage.lineage.n ? session_send(s, MESSAGE_LINEAGE, &job->lineage) : 0;
	} else if (r == 0) {
		r = round_send_lineage(s, false); /* what the transaction showed may use lineage that the peer does not have yet */
	}
	if (r == 0)
		r = session_send_prepared(s, &job->frames);
	s->content_out += job->content;
	round_said_hello(s, &job->push.push.hello, job->seq);
	return r;
}

/* --- what the peer has --- */

void push_take(struct session *s, struct message_push *m)
{
	if (!session_we_take(s))
		return;
	s->pushed = *m;
	s->pushed.hello = (struct message_hello){0};
	m->rows = NULL;
	m->n = 0;
	s->push = PUSH_CAME;
}

void push_reset(struct session *s)
{
	union message m = {.push = s->pushed};

	message_deinit(MESSAGE_PUSH, &m);
	s->pushed = (struct message_push){0};
	s->push = PUSH_NONE;
}

/* All that it uses is known here; else the comparison sees to it. */
static bool introduced(const struct session *s)
{
	for (size_t i = 0; i < s->pushed.n; i++)
		if (!compare_introduced(s, &s->pushed.rows[i].record))
			return false;
	return round_knowledge_known(s);
}

static int hear_all(struct session *s)
{
	int r = round_hear(s, &s->peer_knowledge.k);

	for (size_t i = 0; i < s->pushed.n && r == 0; i++)
		r = round_hear(s, &s->pushed.rows[i].record.vv);
	return r;
}

/* As a walk comes to them. */
static int compare_descending(const void *a, const void *b)
{
	struct path_key x, y;

	path_key(&x, ((const struct message_pushed *)a)->path);
	path_key(&y, ((const struct message_pushed *)b)->path);
	return path_key_compare(&y, &x);
}

static int offer_all(struct session *s)
{
	struct shared_vector *k = shared_vector_new(&s->peer_knowledge.k);
	int r = k ? 0 : -ENOMEM;

	qsort(s->pushed.rows, s->pushed.n, sizeof(*s->pushed.rows), compare_descending);
	for (size_t i = 0; i < s->pushed.n && r == 0; i++) {
		struct message_pushed *row = &s->pushed.rows[i];
		const struct version_vector *v = knowledge_of(&s->peer_knowledge, row->path);
		struct shared_vector *own = v == &s->peer_knowledge.k ? NULL : shared_vector_new(v);

		if (!own && v != &s->peer_knowledge.k)
			r = -ENOMEM;
		else
			r = fetch_pushed(s, row, own ? own : k);
		shared_vector_unref(own);
	}
	shared_vector_unref(k);
	return r;
}

/* What was skipped is found again by the comparison, as the roots differ because of it. */
static int end(struct session *s)
{
	push_reset(s);
	round_forget_skipped(s);
	s->differing = 0;
	s->deferred_overflow = false;
	s->deferred_deletes = 0;
	return s->hello_sent || s->composing ? 0 : round_say_hello(s);
}

int push_step(struct session *s)
{
	int r = 0;

	if (s->push == PUSH_CAME) {
		if (s->lineage_jobs)
			return 0;
		s->push = PUSH_TAKING;
		if (introduced(s)) {
			r = hear_all(s);
			if (r == 0)
				r = round_begin_taking(s);
			if (r == 0)
				r = offer_all(s);
		}
	}
	if (r == 0)
		r = fetch_pump(s);
	if (r == 0 && s->push == PUSH_TAKING && fetch_idle(s)) {
		s->push = PUSH_FLUSHED;
		r = fetch_flush_deferred(s);
	}
	return r == 0 && s->push == PUSH_FLUSHED && fetch_idle(s) ? end(s) : r;
}
