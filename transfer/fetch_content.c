/*
 * transfer/fetch_content.c — the content that a batch needs: chunk trees, then chunks, each into its offer's stage. See
 * transfer/fetch_internal.h.
 *
 *   planned ─┬─ a tree: NODES_ASK, a level at a time ──▶ the list of chunks (STAGE job) ─┐
 *            └─ one chunk ───────────────────────────────────────────────────────────────┴─▶ FETCH, DATA ──▶ STAGE jobs
 *
 * A peer may announce files of very many chunks. A tree is walked when there is room for the most that it can have; trees wait
 * for room in the order of their batches, so that a batch never waits for one that waits for it: those that are as long as to
 * need much are batches of their own. At each level it is looked whether there are more nodes than a file of that size can have.
 *
 * Requests are sent for one offer after the other, while the window has room. An offer is closed, and counts no more in its
 * batch, when it is complete or has failed and nothing that names it is under way.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "tombstones/trash.h"
#include "transfer/fetch_internal.h"

#define REQUEST_BYTES (1024 * 1024)    /* asked for in one request, if chunks are shorter */
#define REQUESTS_OUT_MAX 2048	       /* content requests without an answer */

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

/* Takes the entries over. */
static struct node_walk *walk_new(uint8_t level, struct chunk_tree_entry *entries, size_t n)
{
	struct node_walk *w = calloc(1, sizeof(*w));

	if (!w) {
		free(entries);
		return NULL;
	}
	w->level = level;
	w->entries = entries;
	w->n = w->unresolved = n;
	w->children = calloc(n, sizeof(*w->children));
	w->n_children = calloc(n, sizeof(*w->n_children));
	if (w->children && w->n_children)
		return w;
	walk_free(w);
	return NULL;
}

static int begin_walk(struct offer *o)
{
	struct chunk_tree_entry *root = malloc(sizeof(*root));

	if (!root)
		return -ENOMEM;
	*root = (struct chunk_tree_entry){.hash = o->theirs.content.root, .length = o->theirs.content.size};
	o->walk = walk_new(o->theirs.content.height, root, 1);
	return o->walk ? 0 : -ENOMEM;
}

/* All nodes but the last of a level have two children at least. */
static int check_count(const struct offer *o)
{
	const struct content *content = &o->theirs.content;
	const struct node_walk *w = o->walk;

	if (w->below > (chunk_count_max(content->size, content->chunk_bits) >> (w->level - 1)) + 1)
		return -EBADMSG;
	return w->below > SESSION_CHUNKS_MAX ? -EFBIG : 0;
}

/* Take a node's payload for position i of the walk. -EBADMSG: it is not what its parent announced;
 * -EFBIG: too many. */
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
	w->below += w->n_children[i];
	return check_count(o);
}

/* One level down; at the chunks: hand them to the stage. */
static int descend(struct session *s, struct offer *o)
{
	struct node_walk *w = o->walk, *below;
	struct chunk_tree_entry *entries = calloc(w->below, sizeof(*entries));
	size_t n = w->below, at = 0;
	uint8_t level = w->level - 1;

	if (!entries)
		return -ENOMEM;
	for (size_t i = 0; i < w->n; i++) {
		memcpy(entries + at, w->children[i], w->n_children[i] * sizeof(*entries));
		at += w->n_children[i];
	}
	walk_free(w);
	o->walk = NULL;
	if (level == 0)
		return add_op(s, (struct stage_op){.offer = o, .entries = entries, .n_entries = n});
	below = walk_new(level, entries, n);
	o->walk = below;
	return below ? 0 : -ENOMEM;
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
			if (r < 0)
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
		if (r == -EFBIG) {
			fail_offer(o, r);
			return 0;
		}
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
	if (r == -EFBIG) {
		fail_offer(o, r);
		r = 0;
	}
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

static int add_size(const struct trash_entry *e, void *data)
{
	uint64_t *total = data;

	return __builtin_add_overflow(*total, e->stat.size, total) ? -EOVERFLOW : 0;
}

/* Nothing is asked for, and nothing thrown out of trash, for what could never fit. */
static int check_room(struct session *s, const struct stage *stage)
{
	struct store *store = replica_store(s->replica);
	uint64_t need = stage_missing_bytes(stage), available, total, trash = 0;

	if (file_space(store_staging(store), &available, &total) != 0 || need <= available)
		return 0;
	return trash_list(store, add_size, &trash) == 0 && need - available > trash ? -ENOSPC : 0;
}

void fetch_run_stage(struct session_job *job)
{
	for (struct stage_op *op = job->ops; op; op = op->next) {
		struct offer *o = op->offer;

		do
			op->result = op->entries ? stage_chunks(o->stage, op->entries, op->n_entries)
						 : stage_write(o->stage, op->chunk, op->bytes, op->n);
		while (!op->entries && fetch_make_room(job->session->replica, op->result));
		if (op->result == 0 && op->entries)
			op->result = check_room(job->session, o->stage);
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
	const struct content *content = &o->theirs.content;
	uint64_t most = chunk_count_max(content->size, content->chunk_bits);

	_Static_assert(SESSION_CHUNKS_MAX >= SESSION_BATCH_OFFERS * ((SESSION_SPLIT_BYTES >> (CHUNK_BITS_MIN - 2)) + 1),
		"there is room for all of one batch");
	o->open = true;
	o->batch->pending++;
	if (!o->fetch_tree) {
		stage_missing(o->stage, &o->unwritten);
		want_content(s, o);
	} else if (content->size >> content->chunk_bits >> 2 > SESSION_CHUNKS_MAX) { /* chunks of full length */
		fail_offer(o, -EFBIG);
		close_offer(o);
	} else {
		o->chunks = most < SESSION_CHUNKS_MAX ? (uint32_t)most : SESSION_CHUNKS_MAX;
		o->next_fetch = NULL;
		*s->tree_tail = o;
		s->tree_tail = &o->next_fetch;
	}
	return 0;
}

bool fetch_content_has_room(const struct session *s)
{
	return s->tree_head && s->chunks_held + s->tree_head->chunks <= SESSION_CHUNKS_MAX;
}

static int admit_trees(struct session *s)
{
	int r = 0;

	while (r == 0 && fetch_content_has_room(s)) {
		struct offer *o = s->tree_head;

		s->tree_head = o->next_fetch;
		if (!s->tree_head)
			s->tree_tail = &s->tree_head;
		o->counted = true;
		s->chunks_held += o->chunks;
		want_content(s, o);
		r = begin_walk(o);
	}
	return r;
}

int fetch_content_pump(struct session *s)
{
	int r = admit_trees(s);

	if (r == 0)
		r = pump_requests(s);
	return r < 0 ? r : queue_ops(s);
}

bool fetch_content_idle(const struct session *s)
{
	return !s->ops_head && !s->fetches && !s->nodes_out;
}

void fetch_content_free(struct session *s, struct offer *o)
{
	if (o->counted)
		s->chunks_held -= o->chunks;
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
	s->tree_head = NULL;
	s->tree_tail = &s->tree_head;
}
