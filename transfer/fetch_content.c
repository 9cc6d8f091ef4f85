/*
 * transfer/fetch_content.c — the content that a batch needs: chunk trees, then chunks, each into its offer's stage. See
 * transfer/fetch_internal.h.
 *
 *   planned ─┬─ a tree: NODES_ASK, a level at a time ──▶ the list of chunks (STAGE job) ─┐
 *            └─ one chunk ───────────────────────────────────────────────────────────────┴─▶ FETCH, DATA ──▶ STAGE jobs
 *
 * Requests are sent for one offer after the other, while the window has room. An offer is closed, and counts no more in its
 * batch, when it is complete or has failed and nothing that names it is under way.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "transfer/fetch_internal.h"

#define REQUEST_BYTES (1024 * 1024)    /* asked for in one request, if chunks are shorter */
#define REQUESTS_OUT_MAX 2048	       /* content requests without an answer */
#define CHUNK_BYTES_LEAST (1 << (CHUNK_BITS_MIN - 2)) /* no chunk but the last is shorter */

static void want_content(struct session *s, struct offer *o)
{
	o->next_fetch = NULL;
	*s->fetch_tail = o;
	s->fetch_tail = &o->next_fetch;
}

static void close_offer(struct offer *o)
{
	if (o->open && !o->refs && (o->failed || o->staged)) {
		o->open = false;
		o->batch->pending--;
	}
}

static void fail_offer(struct offer *o, int error)
{
	if (!o->failed)
		o->error = error;
	o->failed = true;
	o->staged = false;
}

static int add_op(struct session *s, struct stage_op op)
{
	struct stage_op *copy = malloc(sizeof(*copy));

	if (!copy) {
		free(op.entries);
		free(op.bytes);
		return -ENOMEM;
	}
	*copy = op;
	copy->next = NULL;
	op.offer->refs++;
	*s->ops_tail = copy;
	s->ops_tail = &copy->next;
	return 0;
}

/* --- nodes --- */

static void walk_free(struct node_walk *w)
{
	if (!w)
		return;
	for (size_t i = 0; w->children && i < w->n; i++)
		free(w->children[i]);
	free(w->children);
	free(w->n_children);
	free(w->entries);
	free(w);
}

static int begin_walk(struct offer *o)
{
	struct node_walk *w = calloc(1, sizeof(*w));

	if (!w)
		return -ENOMEM;
	o->walk = w;
	w->level = o->theirs.content.height;
	w->n = w->unresolved = 1;
	w->entries = calloc(1, sizeof(*w->entries));
	w->children = calloc(1, sizeof(*w->children));
	w->n_children = calloc(1, sizeof(*w->n_children));
	if (!w->entries || !w->children || !w->n_children)
		return -ENOMEM;
	w->entries[0] = (struct chunk_tree_entry){.hash = o->theirs.content.root, .length = o->theirs.content.size};
	return 0;
}

/* Take a node's payload for position i of the walk. -EBADMSG: it is not what its parent announced. */
static int resolve(struct session *s, struct offer *o, size_t i, const void *payload, size_t n)
{
	struct node_walk *w = o->walk;
	uint64_t sum = 0;
	int r;

	if (w->children[i])
		return 0;
	r = chunk_tree_decode(store_algorithm(replica_store(s->replica)), &w->entries[i].hash, w->level, payload, n,
		&w->children[i], &w->n_children[i]);
	if (r < 0)
		return r;
	for (size_t j = 0; j < w->n_children[i]; j++)
		sum += w->children[i][j].length; /* decode checked against overflow */
	if (sum != w->entries[i].length)
		return -EBADMSG;
	w->unresolved--;
	return 0;
}

/* One level down; at the chunks: hand them to the stage. */
static int descend(struct session *s, struct offer *o)
{
	struct node_walk *w = o->walk, *below = NULL;
	size_t total = 0, at = 0;
	int r = 0;

	for (size_t i = 0; i < w->n; i++)
		total += w->n_children[i];
	if (total > o->theirs.content.size / CHUNK_BYTES_LEAST + 2)
		return -EBADMSG;
	below = calloc(1, sizeof(*below));
	if (!below)
		return -ENOMEM;
	below->level = w->level - 1;
	below->n = below->unresolved = total;
	below->entries = calloc(total, sizeof(*below->entries));
	below->children = calloc(total, sizeof(*below->children));
	below->n_children = calloc(total, sizeof(*below->n_children));
	if (!below->entries || !below->children || !below->n_children) {
		below->n = 0;
		walk_free(below);
		return -ENOMEM;
	}
	for (size_t i = 0; i < w->n; i++) {
		memcpy(below->entries + at, w->children[i], w->n_children[i] * sizeof(*below->entries));
		at += w->n_children[i];
	}
	walk_free(w);
	o->walk = below;
	if (below->level == 0) {
		r = add_op(s, (struct stage_op){.offer = o, .entries = steal(below->entries), .n_entries = total});
		walk_free(below);
		o->walk = NULL;
	}
	return r;
}

static int ask_nodes(struct session *s, struct offer *o, const size_t *slots, size_t n)
{
	struct hash hashes[MESSAGE_NODES_MAX];
	struct nodes_request *request = calloc(1, sizeof(*request)), **at = &s->nodes_out;
	union message m = {.nodes_ask = {.v = hashes, .n = n}};

	if (!request || !(request->slots = malloc(n * sizeof(*slots)))) {
		free(request);
		return -ENOMEM;
	}
	memcpy(request->slots, slots, n * sizeof(*slots));
	request->id = m.nodes_ask.id = s->next_id++;
	request->offer = o;
	request->n = n;
	for (size_t i = 0; i < n; i++)
		hashes[i] = o->walk->entries[slots[i]].hash;
	o->refs++;
	while (*at)
		at = &(*at)->next;
	*at = request;
	return session_send(s, MESSAGE_NODES_ASK, &m);
}

/* Look up the nodes of this level here, ask for the others. */
static int pump_walk(struct session *s, struct offer *o)
{
	while (o->walk && !o->failed) {
		struct node_walk *w = o->walk;
		size_t slots[MESSAGE_NODES_MAX], n = 0;
		struct index_txn *t = NULL;
		int r;

		if (!w->unresolved) {
			r = descend(s, o);
			if (r == -EBADMSG)
				fail_offer(o, r);
			else if (r < 0)
				return r;
			continue;
		}
		if (w->asked == w->n)
			return 0; /* answers are due */
		r = index_begin_read(replica_index(s->replica), &t);
		while (r == 0 && w->asked < w->n && n < MESSAGE_NODES_MAX) {
			struct buf payload = BUF_INIT;
			uint8_t level;

			r = index_node_get(t, &w->entries[w->asked].hash, &level, &payload);
			if (r == 0 && level == w->level)
				r = resolve(s, o, w->asked, payload.data, payload.len);
			else if (r >= 0)
				slots[n++] = w->asked, r = 0;
			buf_deinit(&payload);
			w->asked++;
		}
		index_abort(t);
		if (r == 0 && n)
			r = ask_nodes(s, o, slots, n);
		if (r < 0)
			return r;
	}
	return 0;
}

int fetch_nodes(struct session *s, const struct message_nodes *m)
{
	struct nodes_request **at = &s->nodes_out, *request;
	struct offer *o;
	int r = 0;

	while (*at && (*at)->id != m->id)
		at = &(*at)->next;
	request = *at;
	if (!request || request->n != m->n)
		return session_protocol_error(s, "NODES that nobody asked for");
	*at = request->next;
	o = request->offer;
	o->refs--;
	for (size_t i = 0; i < m->n && r == 0 && !o->failed; i++) {
		if (!m->v[i].present)
			fail_offer(o, -ESTALE);
		else
			r = resolve(s, o, request->slots[i], m->v[i].payload, m->v[i].n);
	}
	free(request->slots);
	free(request);
	if (r == -EBADMSG)
		return session_protocol_error(s, "a node that is not what it was announced to be");
	if (r == 0)
		r = pump_walk(s, o);
	close_offer(o);
	return r;
}

/* --- content --- */

static int add_request(struct session *s, struct offer *o, struct message_fetch *m, struct fetch_request ***tail)
{
	const struct stage_missing *missing;
	struct message_request *out = &m->v[m->n];
	struct fetch_request *request = calloc(1, sizeof(*request));
	size_t n;

	missing = stage_missing(o->stage, &n);
	if (!request || !(out->v = calloc(MESSAGE_RANGES_MAX, sizeof(*out->v)))) {
		free(request);
		return -ENOMEM;
	}
	request->id = out->id = s->next_id++;
	request->offer = o;
	request->first = o->next_missing;
	out->path = o->path;
	out->content = o->theirs.content;
	while (o->next_missing < n && out->n < MESSAGE_RANGES_MAX) {
		const struct stage_missing *chunk = &missing[o->next_missing];

		if (out->n && request->bytes + chunk->length > REQUEST_BYTES)
			break;
		out->v[out->n++] = (struct message_fetch_range){.offset = chunk->offset, .length = chunk->length};
		request->bytes += chunk->length;
		o->next_missing++;
	}
	request->n = out->n;
	s->window += request->bytes;
	o->refs++;
	m->n++;
	**tail = request;
	*tail = &request->next;
	return 0;
}

static int pump_requests(struct session *s)
{
	struct message_request requests[MESSAGE_FETCH_MAX];
	union message m = {.fetch = {.v = requests}};
	struct fetch_request **tail = &s->fetches;
	size_t out = 0;
	int r = 0;

	memset(requests, 0, sizeof(requests));
	while (*tail) {
		tail = &(*tail)->next;
		out++;
	}
	while (r == 0 && s->fetch_head && m.fetch.n < MESSAGE_FETCH_MAX && s->window < SESSION_WINDOW_BYTES &&
			out < REQUESTS_OUT_MAX) {
		struct offer *o = s->fetch_head;
		size_t n = 0;

		if (!o->failed && !o->walk && o->unwritten)
			stage_missing(o->stage, &n);
		if (o->next_missing < n) {
			r = add_request(s, o, &m.fetch, &tail);
			out++;
			continue;
		}
		s->fetch_head = o->next_fetch;
		if (!s->fetch_head)
			s->fetch_tail = &s->fetch_head;
		if (!o->failed && o->walk)
			r = pump_walk(s, o);
		close_offer(o);
	}
	if (r == 0 && m.fetch.n)
		r = session_send(s, MESSAGE_FETCH, &m);
	for (size_t i = 0; i < m.fetch.n; i++)
		free(requests[i].v);
	return r;
}

static struct fetch_request **find_request(struct session *s, uint32_t id)
{
	struct fetch_request **at = &s->fetches; /* answers come in order: it is the first */

	while (*at && (*at)->id != id)
		at = &(*at)->next;
	return at;
}

static void request_over(struct session *s, struct fetch_request **at)
{
	struct fetch_request *request = *at;
	struct offer *o = request->offer;

	*at = request->next;
	free(request->chunk);
	free(request);
	o->refs--;
	close_offer(o);
	(void)s;
}

int fetch_data(struct session *s, const struct message_data *m)
{
	struct fetch_request **at = find_request(s, m->id), *request = *at;
	const struct stage_missing *chunk;
	size_t n;
	int r = 0;

	if (!request || m->range != request->done || m->at != request->at)
		return session_protocol_error(s, "DATA that nobody asked for");
	chunk = &stage_missing(request->offer->stage, &n)[request->first + request->done];
	if (m->n > chunk->length - request->at || (!m->n && chunk->length))
		return session_protocol_error(s, "DATA beyond what was asked for");
	if (!request->chunk && !(request->chunk = malloc(chunk->length ? chunk->length : 1)))
		return -ENOMEM;
	if (m->n)
		memcpy(request->chunk + request->at, m->bytes, m->n);
	request->at += (uint32_t)m->n;
	s->content_in += m->n;
	if (request->at < chunk->length)
		return 0;
	if (request->offer->failed)
		s->window -= chunk->length;
	else
		r = add_op(s, (struct stage_op){.offer = request->offer,
				      .chunk = chunk->chunk,
				      .bytes = steal(request->chunk),
				      .n = chunk->length});
	free(request->chunk);
	request->chunk = NULL;
	request->at = 0;
	if (++request->done == request->n)
		request_over(s, at);
	return r;
}

int fetch_gone(struct session *s, const struct message_gone *m)
{
	struct fetch_request **at = find_request(s, m->id), *request = *at;
	const struct stage_missing *missing;
	size_t n;

	if (!request)
		return session_protocol_error(s, "GONE for nothing that was asked for");
	missing = stage_missing(request->offer->stage, &n);
	for (size_t i = request->done; i < request->n; i++)
		s->window -= missing[request->first + i].length;
	fail_offer(request->offer, m->reason == MESSAGE_GONE_CHANGED ? -ESTALE : -EIO);
	request_over(s, at);
	return 0;
}

/* --- the plan lane's other job: bytes into stages --- */

void fetch_run_stage(struct session_job *job)
{
	for (struct stage_op *op = job->ops; op; op = op->next) {
		struct offer *o = op->offer;

		do
			op->result = op->entries ? stage_chunks(o->stage, op->entries, op->n_entries)
						 : stage_write(o->stage, op->chunk, op->bytes, op->n);
		while (!op->entries && fetch_make_room(job->session->replica, op->result));
		if (op->result == STAGE_COMPLETE) {
			int r = stage_finish(o->stage);

			if (r < 0)
				op->result = r;
		}
	}
}

int fetch_done_stage(struct session *s, struct session_job *job)
{
	for (struct stage_op *op = job->ops; op; op = op->next) {
		struct offer *o = op->offer;
		size_t n;

		o->refs--;
		if (!op->entries)
			s->window -= op->n;
		if (op->result < 0) {
			fail_offer(o, op->result);
		} else if (op->result == STAGE_MISMATCH) {
			fail_offer(o, -ESTALE);
		} else if (op->result == STAGE_COMPLETE) {
			o->staged = true;
		} else if (op->entries && !o->failed) {
			stage_missing(o->stage, &n);
			o->unwritten = n;
			want_content(s, o);
		}
		close_offer(o);
	}
	return 0;
}

/* --- driving --- */

static bool stage_job_queued(const struct session *s)
{
	for (const struct session_job *job = s->queue[SESSION_LANE_PLAN]; job; job = job->next)
		if (job->type == JOB_STAGE)
			return true;
	return false;
}

static int queue_ops(struct session *s)
{
	struct session_job *job;

	if (!s->ops_head || stage_job_queued(s))
		return 0;
	job = session_job_new(s, JOB_STAGE, SESSION_LANE_PLAN);
	if (!job)
		return -ENOMEM;
	job->ops = s->ops_head;
	s->ops_head = NULL;
	s->ops_tail = &s->ops_head;
	session_job_queue(s, job);
	return 0;
}

int fetch_content_begin(struct session *s, struct offer *o)
{
	o->open = true;
	o->batch->pending++;
	want_content(s, o);
	if (o->fetch_tree)
		return begin_walk(o);
	stage_missing(o->stage, &o->unwritten);
	return 0;
}

int fetch_content_pump(struct session *s)
{
	int r = pump_requests(s);

	return r < 0 ? r : queue_ops(s);
}

bool fetch_content_idle(const struct session *s)
{
	return !s->ops_head && !s->fetches && !s->nodes_out;
}

void fetch_content_free(struct offer *o)
{
	walk_free(o->walk);
}

void fetch_content_reset(struct session *s)
{
	while (s->fetches) {
		struct fetch_request *request = s->fetches;

		s->fetches = request->next;
		free(request->chunk);
		free(request);
	}
	while (s->nodes_out) {
		struct nodes_request *request = s->nodes_out;

		s->nodes_out = request->next;
		free(request->slots);
		free(request);
	}
	while (s->ops_head) {
		struct stage_op *op = s->ops_head;

		s->ops_head = op->next;
		free(op->entries);
		free(op->bytes);
		free(op);
	}
	s->ops_tail = &s->ops_head;
	s->fetch_head = NULL;
	s->fetch_tail = &s->fetch_head;
}
