/*
 * transfer/fetch.c — from offers (a path, what the peer has there) to applied batches.
 *
 *   incoming ──PLAN job──▶ FETCHING (node walks, content requests, STAGE jobs) ──all here──▶ APPLY job ──▶ results
 *       ▲          └─▶ deferred: deletions, and what must wait for them ──flushed when the walk is over──┐
 *       └──────────────────────────────────────────────────────────────────────────────────────────────┘
 *
 * Deletions wait for the end of the round so that they can be counted before the first is made, and so that what was
 * renamed is found here before it goes. They are flushed in descending path order: what lies below a directory first.
 *
 * An offer that is being fetched belongs to the caller's thread; while a job works on its stage it is in an op or in a
 * PLAN/APPLY batch, and nobody else touches it. refs counts its outstanding requests and ops.
 */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "tombstones/observe.h"
#include "tombstones/trash.h"
#include "transfer/session_internal.h"

#define DEFERRED_MAX 262144	       /* more are left to the next round */
#define REAPPEARS_KEPT 16	       /* contents of many paths whose answer is remembered */
#define REAPPEARS_MANY 64
#define REQUEST_BYTES (1024 * 1024)    /* asked for in one request, if chunks are shorter */
#define REQUESTS_OUT_MAX 2048	       /* content requests without an answer */
#define MAKE_ROOM_BYTES (16 * 1024 * 1024) /* of trash that go at a time when the disk is full */
#define CHUNK_BYTES_LEAST (1 << (CHUNK_BITS_MIN - 2)) /* no chunk but the last is shorter */

/* --- small things --- */

struct shared_vector *shared_vector_new(const struct version_vector *v)
{
	struct shared_vector *k = calloc(1, sizeof(*k));

	if (!k)
		return NULL;
	k->refs = 1;
	if (version_vector_copy(&k->v, v) < 0) {
		free(k);
		return NULL;
	}
	return k;
}

void shared_vector_unref(struct shared_vector *k)
{
	if (!k || --k->refs)
		return;
	version_vector_deinit(&k->v);
	free(k);
}

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

static void offer_free(struct offer *o)
{
	if (!o)
		return;
	walk_free(o->walk);
	stage_free(o->stage);
	record_deinit(&o->theirs);
	shared_vector_unref(o->k);
	free(o->path);
	free(o);
}

static int batch_add(struct batch *b, struct offer *o)
{
	int r = array_reserve(&b->v, &b->cap, b->n + 1, sizeof(struct offer *));

	if (r == 0) {
		b->v[b->n++] = o;
		o->batch = b;
	}
	return r;
}

void batch_free(struct session *s, struct batch *b)
{
	struct batch **at = &s->batches;

	while (*at && *at != b)
		at = &(*at)->next;
	if (*at) {
		*at = b->next;
		s->n_batches--;
	}
	for (size_t i = 0; i < b->n; i++) {
		s->pending--;
		offer_free(b->v[i]);
	}
	free(b->v);
	free(b);
}

static struct batch *batch_new(struct session *s, enum batch_state state)
{
	struct batch *b = calloc(1, sizeof(*b)), **at = &s->batches;

	if (!b)
		return NULL;
	b->state = state;
	while (*at)
		at = &(*at)->next;
	*at = b;
	s->n_batches++;
	return b;
}

int fetch_skip(struct session *s, const char *path)
{
	int r;

	s->skipped_count++;
	if (s->n_skipped >= KNOWLEDGE_EXCEPTIONS_MAX) {
		s->skipped_overflow = true; /* K will not be joined: the vector stays as it is */
		return 0;
	}
	r = array_reserve(&s->skipped, &s->cap_skipped, s->n_skipped + 1, sizeof(*s->skipped));
	if (r < 0)
		return r;
	s->skipped[s->n_skipped] = strdup(path);
	if (!s->skipped[s->n_skipped])
		return -ENOMEM;
	s->n_skipped++;
	return 0;
}

static void tell(struct session *s, const struct offer *o)
{
	if (s->options.host.tell)
		s->options.host.tell(s, o->path, o->action, o->result, o->error, s->options.host.data);
}

static bool is_full(int error)
{
	return error == -ENOSPC || error == -EDQUOT;
}

/* The disk is full: what is in trash goes first, oldest first. Was there any? */
static bool make_room(struct replica *replica)
{
	uint64_t removed = 0;

	replica_lock(replica);
	trash_make_room(replica_store(replica), MAKE_ROOM_BYTES, &removed);
	replica_unlock(replica);
	return removed > 0;
}

/* The offer's outcome: counted, told, and an exception where it is not dealt with. The offer stays the caller's. */
static int settle_offer(struct session *s, struct offer *o)
{
	bool dirty = false, skip = false;

	switch (o->result) {
	case APPLY_NONE:
		return 0;
	case APPLY_DONE:
	case APPLY_NOT_HELD:
		s->applied++;
		s->conflicts += o->conflict;
		s->progress = true;
		break;
	case APPLY_NEEDS_CONTENT:
		s->progress = true; /* the next round stages it */
		skip = true;
		break;
	case APPLY_CHANGED:
	case APPLY_BUSY:
	case APPLY_BLOCKED:
		dirty = skip = true;
		break;
	case APPLY_HELD:
		s->held_count++;
		skip = true;
		break;
	case APPLY_FAILED:
		s->full_count += is_full(o->error);
		skip = true;
		break;
	case APPLY_WAIT:
		skip = true;
		break;
	}
	tell(s, o);
	if (dirty && s->options.host.dirty)
		s->options.host.dirty(s, o->path, s->options.host.data);
	return skip ? fetch_skip(s, o->path) : 0;
}

static struct apply_options apply_options_of(struct session *s)
{
	return (struct apply_options){
		.replica = s->replica,
		.ignore = s->ignore,
		.taker_loses = !session_we_send(s),
		.policy = s->policy_differs ? NULL : &s->options.policy,
		.source = s->peer_replica,
		.grace_ns = s->options.grace_ns,
		.preserve_owner = s->options.preserve_owner,
	};
}

static struct apply_item apply_item_of(const struct offer *o)
{
	struct apply_item item = {
		.path = o->path,
		.theirs = o->absent ? NULL : &o->theirs,
		.their_k = &o->k->v,
		.staged = o->staged ? stage_name(o->stage) : NULL,
	};

	if (o->staged)
		item.nodes = stage_nodes(o->stage, &item.n_nodes);
	return item;
}

/* --- offers --- */

static struct batch *filling(struct session *s)
{
	for (struct batch *b = s->batches; b; b = b->next)
		if (b->state == BATCH_FILLING)
			return b;
	return batch_new(s, BATCH_FILLING);
}

int fetch_offer(struct session *s, const char *path, struct record *theirs, struct shared_vector *k)
{
	struct batch *b;
	struct offer *o;
	int r;

	if (!session_we_take(s))
		return 0;
	b = filling(s);
	o = calloc(1, sizeof(*o));
	if (!b || !o || !(o->path = strdup(path))) {
		offer_free(o);
		return -ENOMEM;
	}
	o->absent = !theirs;
	o->k = k;
	k->refs++;
	r = batch_add(b, o);
	if (r < 0) {
		offer_free(o);
		return r;
	}
	if (theirs) {
		o->theirs = *theirs;
		memset(theirs, 0, sizeof(*theirs));
	}
	s->backlog++;
	s->pending++;
	return 0;
}

bool fetch_idle(const struct session *s)
{
	return !s->batches && !s->ops_head && !s->fetches && !s->nodes_out;
}

/* --- planning --- */

static int decide_offer(struct index_txn *t, const struct knowledge *k, const struct apply_options *options, struct offer *o,
	bool *ret_content)
{
	struct apply_item item = apply_item_of(o);
	struct row row = {0};
	bool lands, live;
	int r;

	r = apply_preview(t, k, options, &item, &o->action, ret_content);
	if (r < 0)
		return r;
	r = index_get(t, o->path, &row);
	if (r < 0)
		return r;
	live = r == 0 && row_live(&row);
	lands = (o->action == DECIDE_TAKE || o->action == DECIDE_ASIDE) && o->theirs.live &&
		o->theirs.kind != RECORD_DIRECTORY;
	o->deletes = live && (o->action == DECIDE_DELETE || (o->action == DECIDE_TAKE && !o->theirs.live));
	o->defer = o->deletes;
	if (lands && !o->defer) {
		bool directory = r == 0 && (row.place == ROW_IMPLIED ||
						   (live && row.record.kind == RECORD_DIRECTORY && row.place == ROW_ON_DISK));

		r = directory ? 1 : index_any_live_below(t, o->path);
		o->defer = r > 0;
	}
	row_deinit(&row);
	return r < 0 ? r : 0;
}

static int stage_offer(struct replica *replica, struct offer *o)
{
	const struct content *content = &o->theirs.content;
	struct chunk_tree_entry whole = {.hash = content->root, .length = content->size};
	const struct stage_missing *missing;
	size_t n;
	int r;

	r = stage_begin(&o->stage, replica, o->path, content);
	if (r == 0 && content->height) {
		o->fetch_tree = true;
		return 0;
	}
	if (r == 0)
		r = stage_chunks(o->stage, &whole, 1);
	if (r == 0) {
		missing = stage_missing(o->stage, &n);
		if (n == 1 && missing[0].length == 0)
			r = stage_write(o->stage, missing[0].chunk, "", 0);
	}
	if (r == STAGE_COMPLETE) {
		r = stage_finish(o->stage);
		o->staged = r == 0;
	}
	return r < 0 ? r : 0;
}

void fetch_run_plan(struct session_job *job)
{
	struct session *s = job->session;
	struct apply_options options = apply_options_of(s);
	struct batch *b = job->batch;
	struct knowledge k = {0};
	struct index_txn *t = NULL;
	bool *content = calloc(b->n ? b->n : 1, sizeof(*content));

	job->error = content ? index_begin_read(replica_index(s->replica), &t) : -ENOMEM;
	if (job->error == 0)
		job->error = replica_knowledge_read(t, &k);
	for (size_t i = 0; i < b->n && job->error == 0; i++)
		job->error = decide_offer(t, &k, &options, b->v[i], &content[i]);
	index_abort(t);
	for (size_t i = 0; i < b->n && job->error == 0; i++) {
		struct offer *o = b->v[i];

		if (!content[i] || (o->defer && !o->deferred_once))
			continue;
		o->error = stage_offer(s->replica, o);
		while (is_full(o->error) && make_room(s->replica)) {
			stage_free(o->stage);
			o->stage = NULL;
			o->error = stage_offer(s->replica, o);
		}
	}
	knowledge_deinit(&k);
	free(content);
}

static int defer(struct session *s, struct offer *o)
{
	int r;

	if (s->n_deferred >= DEFERRED_MAX) {
		s->deferred_overflow = true;
		s->deferred_deletes += o->deletes;
		s->progress = true;
		offer_free(o);
		s->pending--;
		return 0;
	}
	r = array_reserve(&s->deferred, &s->cap_deferred, s->n_deferred + 1, sizeof(struct offer *));
	if (r < 0)
		return r;
	o->batch = NULL;
	s->deferred[s->n_deferred++] = o;
	return 0;
}

static void want_content(struct session *s, struct offer *o)
{
	o->next_fetch = NULL;
	*s->fetch_tail = o;
	s->fetch_tail = &o->next_fetch;
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

/* After planning: what is settled goes, what needs content is asked for. Returns whether the offer stays in the batch. */
static int planned(struct session *s, struct offer *o, bool *ret_stays)
{
	size_t missing = 0;
	int r;

	*ret_stays = false;
	if (o->error || o->action == DECIDE_NONE || o->action == DECIDE_WAIT) {
		o->result = o->error ? APPLY_FAILED : o->action == DECIDE_WAIT ? APPLY_WAIT : APPLY_NONE;
		r = settle_offer(s, o);
		offer_free(o);
		s->pending--;
		return r;
	}
	if (o->defer && !o->deferred_once)
		return defer(s, o);
	*ret_stays = true;
	if (!o->stage || o->staged)
		return 0;
	o->open = true;
	o->batch->pending++;
	want_content(s, o);
	if (o->fetch_tree)
		return begin_walk(o);
	stage_missing(o->stage, &missing);
	o->unwritten = missing;
	return 0;
}

/* A long transfer must not hold up the rest of its batch. */
static int split_big(struct session *s, struct batch *b)
{
	size_t kept = 0;
	int r = 0;

	for (size_t i = 0; i < b->n; i++) {
		struct offer *o = b->v[i];
		struct batch *own = NULL;

		if (r == 0 && o->open && o->theirs.content.size > SESSION_SPLIT_BYTES && b->n > 1) {
			own = batch_new(s, BATCH_FETCHING);
			r = own ? batch_add(own, o) : -ENOMEM;
		}
		if (own && r == 0) {
			own->pending = 1;
			b->pending--;
		} else {
			b->v[kept++] = o;
		}
	}
	b->n = kept;
	return r;
}

int fetch_done_plan(struct session *s, struct session_job *job)
{
	struct batch *b = job->batch;
	size_t kept = 0;
	int r = job->error;

	job->batch = NULL;
	b->state = BATCH_FETCHING;
	for (size_t i = 0; i < b->n; i++) {
		struct offer *o = b->v[i];
		bool stays = true;

		if (r == 0)
			r = planned(s, o, &stays);
		if (stays)
			b->v[kept++] = o;
	}
	b->n = kept;
	if (r == 0)
		r = split_big(s, b);
	if (!b->n)
		batch_free(s, b);
	return r;
}

/* --- fetching: nodes --- */

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

/* --- fetching: content --- */

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
		while (!op->entries && is_full(op->result) && make_room(job->session->replica));
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

/* --- applying --- */

void fetch_run_apply(struct session_job *job)
{
	struct session *s = job->session;
	struct apply_options options = apply_options_of(s);
	struct batch *b = job->batch;
	struct apply_item *items = calloc(b->n, sizeof(*items));

	if (!items) {
		job->error = -ENOMEM;
		return;
	}
	for (size_t i = 0; i < b->n; i++)
		items[i] = apply_item_of(b->v[i]);
	job->error = apply_batch(&options, items, b->n);
	for (size_t i = 0; i < b->n && job->error == 0; i++) {
		struct offer *o = b->v[i];

		o->result = items[i].result;
		o->error = items[i].error;
		o->conflict = items[i].conflict;
		o->privileges_cleared = items[i].privileges_cleared;
		if (items[i].consumed)
			stage_taken(o->stage);
	}
	/* After a failed batch intents may name what is in staging: all of it is left to recovery. */
	for (size_t i = 0; i < b->n && job->error < 0; i++)
		if (b->v[i]->stage)
			stage_taken(b->v[i]->stage);
	free(items);
}

int fetch_done_apply(struct session *s, struct session_job *job)
{
	struct batch *b = job->batch;
	uint64_t before = s->applied;
	int r = 0;

	job->batch = NULL;
	if (job->error < 0) {
		batch_free(s, b);
		if (s->options.host.broken)
			s->options.host.broken(s, job->error, s->options.host.data);
		return job->error;
	}
	for (size_t i = 0; i < b->n && r == 0; i++)
		r = settle_offer(s, b->v[i]);
	batch_free(s, b);
	if (s->applied != before && s->options.host.changed)
		s->options.host.changed(s, s->options.host.data);
	return r;
}

/* Fetched as far as it goes: what failed is settled, the rest is applied. */
static int queue_apply(struct session *s, struct batch *b)
{
	struct session_job *job;
	size_t kept = 0;
	int r = 0;

	for (size_t i = 0; i < b->n; i++) {
		struct offer *o = b->v[i];

		if (!o->failed || r < 0) {
			b->v[kept++] = o;
			continue;
		}
		o->result = APPLY_FAILED;
		r = settle_offer(s, o);
		offer_free(o);
		s->pending--;
	}
	b->n = kept;
	if (r < 0)
		return r;
	if (!b->n) {
		batch_free(s, b);
		return 0;
	}
	job = session_job_new(s, JOB_APPLY, SESSION_LANE_APPLY);
	if (!job)
		return -ENOMEM;
	b->state = BATCH_APPLYING;
	job->batch = b;
	session_job_queue(s, job);
	return 0;
}

/* --- the deferred --- */

static int compare_descending(const void *a, const void *b)
{
	struct path_key x, y;

	path_key(&x, (*(struct offer *const *)a)->path);
	path_key(&y, (*(struct offer *const *)b)->path);
	return path_key_compare(&y, &x);
}

struct reappears {
	const struct session *s;
	unsigned looked;
	bool found;
	/* Thousands of equal files must not be looked through for each of them. */
	struct {
		struct content content;
		bool found;
	} kept[REAPPEARS_KEPT];
	size_t n_kept;
};

static int not_deferred(const char *path, void *data)
{
	struct reappears *state = data;
	struct offer key = {.path = (char *)path}, *key_p = &key;

	state->found = !bsearch(&key_p, state->s->deferred, state->s->n_deferred, sizeof(key_p), compare_descending);
	state->looked++;
	return state->found;
}

static int reappears(struct index_txn *t, const struct content *content, struct reappears *state)
{
	int r;

	for (size_t i = 0; i < state->n_kept && i < REAPPEARS_KEPT; i++)
		if (content_equal(&state->kept[i].content, content)) {
			state->found = state->kept[i].found;
			return 0;
		}
	state->looked = 0;
	state->found = false;
	r = index_by_content(t, content, not_deferred, state);
	if (r >= 0 && state->looked >= REAPPEARS_MANY) {
		state->kept[state->n_kept % REAPPEARS_KEPT].content = *content;
		state->kept[state->n_kept++ % REAPPEARS_KEPT].found = state->found;
	}
	return r;
}

/* Does a deletion count for the budget? Not if its content stands elsewhere, too: that is a rename. */
static int counts(struct reappears *state, struct index_txn *t, const struct offer *o, bool *ret)
{
	struct row row = {0};
	int r;

	*ret = false;
	if (!o->deletes)
		return 0;
	r = index_get(t, o->path, &row);
	if (r == 0 && row_live(&row)) {
		state->found = false;
		if (row.record.kind == RECORD_FILE)
			r = reappears(t, &row.record.content, state);
		*ret = !state->found;
	}
	row_deinit(&row);
	return r < 0 ? r : 0;
}

static int live_below(struct index_txn *t, const char *top, size_t n, uint64_t *ret)
{
	struct index_cursor *c = NULL;
	struct path_key prefix, key;
	struct hash hash;
	char *path = strndup(top, n);
	bool live;
	int r;

	if (!path)
		return -ENOMEM;
	*ret = 0;
	path_key(&prefix, path);
	r = index_cursor_open(t, &c);
	for (r = r < 0 ? r : index_cursor_seek(c, path); r == 0; r = index_cursor_next(c)) {
		if (!index_cursor_peek(c, &key, &hash, &live))
			continue;
		if (key.len < prefix.len || memcmp(key.bytes, prefix.bytes, prefix.len) != 0 ||
				(key.len > prefix.len && key.bytes[prefix.len] != 0))
			break;
		*ret += live;
	}
	index_cursor_close(c);
	free(path);
	return r < 0 ? r : 0;
}

/* Overall, or in one top-level subtree: more deletions than may pass without a person's word? */
static int over_budget(struct session *s, bool *ret)
{
	struct index_txn *t = NULL;
	struct index_counts all = {0};
	struct reappears state = {.s = s};
	uint64_t total = 0, group = 0;
	int r = index_begin_read(replica_index(s->replica), &t);

	*ret = false;
	if (r == 0)
		r = index_counts(t, &all);
	for (size_t i = 0; i < s->n_deferred && r == 0 && !*ret; i++) {
		const char *path = s->deferred[i]->path;
		size_t top = strcspn(path, "/");
		bool counted, last = i + 1 == s->n_deferred || strncmp(path, s->deferred[i + 1]->path, top) != 0 ||
				    (s->deferred[i + 1]->path[top] && s->deferred[i + 1]->path[top] != '/');
		uint64_t live = 0;

		r = counts(&state, t, s->deferred[i], &counted);
		total += counted;
		group += counted;
		if (r == 0 && last && group > OBSERVE_BUDGET_MIN) {
			r = live_below(t, path, top, &live);
			*ret = observe_over_budget(group, live) && live != all.live;
		}
		if (last)
			group = 0;
	}
	index_abort(t);
	*ret = *ret || observe_over_budget(total + s->deferred_deletes, all.live);
	return r;
}

int fetch_flush_deferred(struct session *s)
{
	struct batch *b;
	bool held = false;
	int r = 0;

	if (!s->n_deferred)
		return 0;
	qsort(s->deferred, s->n_deferred, sizeof(struct offer *), compare_descending);
	if (!s->options.confirmed && s->confirmed_round < s->round)
		r = over_budget(s, &held);
	b = filling(s);
	if (!b)
		return -ENOMEM;
	for (size_t i = 0; i < s->n_deferred && r == 0; i++) {
		struct offer *o = s->deferred[i];

		o->deferred_once = true;
		if (!held) {
			r = batch_add(b, o);
			s->backlog++;
			if (r == 0)
				s->deferred[i] = NULL; /* the batch's */
			continue;
		}
		o->result = APPLY_HELD;
		r = settle_offer(s, o);
		s->deferred[i] = NULL;
		offer_free(o);
		s->pending--;
	}
	s->n_deferred = r < 0 ? s->n_deferred : 0;
	if (!b->n)
		batch_free(s, b);
	return r < 0 ? r : fetch_pump(s);
}

/* --- driving --- */

/* Move the first offers of the filling batch into one of their own and plan it. */
static int plan_next(struct session *s)
{
	struct batch *from = NULL, *b;
	struct session_job *job;
	size_t n, in_flight = 0;
	int r = 0;

	for (b = s->batches; b; b = b->next) {
		if (b->state == BATCH_FILLING)
			from = b;
		else
			in_flight++;
		if (b->state == BATCH_PLANNING)
			return 0;
	}
	if (!from || !from->n || in_flight >= SESSION_BATCHES_MAX)
		return 0;
	if (from->v[0]->deferred_once && in_flight)
		return 0; /* the deferred go in order, one batch after the other */
	n = from->n < SESSION_BATCH_OFFERS ? from->n : SESSION_BATCH_OFFERS;
	b = batch_new(s, BATCH_PLANNING);
	job = session_job_new(s, JOB_PLAN, SESSION_LANE_PLAN);
	if (!b || !job) {
		free(job);
		return -ENOMEM;
	}
	r = array_reserve(&b->v, &b->cap, n, sizeof(struct offer *));
	if (r < 0) {
		free(job);
		return r;
	}
	for (size_t i = 0; i < n; i++)
		batch_add(b, from->v[i]);
	memmove(from->v, from->v + n, (from->n - n) * sizeof(struct offer *));
	from->n -= n;
	s->backlog -= n;
	if (!from->n)
		batch_free(s, from);
	job->batch = b;
	session_job_queue(s, job);
	return 0;
}

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

int fetch_pump(struct session *s)
{
	struct batch *b, *next;
	int r;

	r = plan_next(s);
	if (r == 0)
		r = pump_requests(s);
	if (r == 0)
		r = queue_ops(s);
	for (b = s->batches; b && r == 0; b = next) {
		next = b->next;
		if (b->state == BATCH_FETCHING && !b->pending)
			r = queue_apply(s, b);
	}
	if (r == 0)
		r = plan_next(s);
	return r;
}

void fetch_reset(struct session *s)
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
	while (s->batches)
		batch_free(s, s->batches);
	for (size_t i = 0; i < s->n_deferred; i++)
		offer_free(s->deferred[i]);
	free(s->deferred);
	s->deferred = NULL;
	s->n_deferred = s->cap_deferred = 0;
}
