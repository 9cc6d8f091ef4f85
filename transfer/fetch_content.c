/*
 * transfer/fetch_content.c — the content that a batch needs: chunk trees, then chunks, each into its offer's stage. See
 * transfer/fetch_internal.h.
 *
 *   planned ─┬─ a tree: NODES_ASK, a level at a time ──▶ the list of chunks (STAGE job) ─┐
 *            └─ one chunk ───────────────────────────────────────────────────────────────┴─▶ FETCH, DATA ──▶ STAGE jobs
 *
 * A peer may announce files of very many chunks. A tree is walked when there is room for the most that it can have; trees wait
 * for room in the order of their batches, so that a batch never waits for one that waits for it: those that are as long as to
 * need much are batches of their own. The walk is fetch_nodes.c's.
 *
 * Where the old version may have some of a missing chunk, the request waits for a STAGE job that names its pieces
 * (transfer/pieces.h); another one puts together what PIECES tells. If that is not the chunk, it is asked for without names.
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
#define NAMES_WANTED 1024	       /* about so many pieces are named in one request */
#define NAMES_BYTES_MIN 512	       /* of a chunk, and of old bytes, for which names may pay */
#define POOR_MAX 8		       /* answers in a row of which hardly anything was old: no more names for this file */

static void want_content(struct session *s, struct offer *o)
{
	o->next_fetch = NULL;
	*s->fetch_tail = o;
	s->fetch_tail = &o->next_fetch;
}

void fetch_close(struct offer *o)
{
	if (o->open && !o->refs && (o->failed || o->staged)) {
		o->open = false;
		o->batch->pending--;
	}
}

void fetch_fail(struct offer *o, int error)
{
	if (!o->failed)
		o->error = error;
	o->failed = true;
	o->staged = false;
}

struct named_pieces *fetch_pieces_new(struct session *s, uint8_t bits, size_t max)
{
	struct named_pieces *p = calloc(1, sizeof(*p) + max * sizeof(p->v[0]));

	if (!p)
		return NULL;
	*p = (struct named_pieces){.refs = 1, .bits = bits, .max = max};
	s->names_out += max;
	return p;
}

void fetch_pieces_unref(struct session *s, struct named_pieces *p)
{
	if (!p || --p->refs)
		return;
	s->names_out -= p->max;
	free(p);
}

static void request_free(struct session *s, struct fetch_request *request)
{
	if (!request)
		return;
	s->requests_out--;
	fetch_pieces_unref(s, request->pieces);
	free(request->chunk);
	free(request);
}

/* What an op holds, not the op. */
static void op_deinit(struct session *s, struct stage_op *op)
{
	request_free(s, op->request);
	fetch_pieces_unref(s, op->pieces);
	free(op->entries);
	free(op->bytes);
}

void fetch_op_free(struct session *s, struct stage_op *op)
{
	op_deinit(s, op);
	free(op);
}

int fetch_add_op(struct session *s, struct stage_op op)
{
	struct stage_op *copy = malloc(sizeof(*copy));

	if (!copy) {
		op_deinit(s, &op);
		return -ENOMEM;
	}
	*copy = op;
	copy->next = NULL;
	op.offer->refs++;
	*s->ops_tail = copy;
	s->ops_tail = &copy->next;
	return 0;
}

/* --- content --- */

bool fetch_may_name(const struct session *s, uint64_t source)
{
	return session_we_send(s) || source == s->peer_replica;
}

/* May the peer be told what the old version is made of, and would it help? */
static bool names_pay(const struct session *s, const struct offer *o, const struct stage_missing *m)
{
	return o->poor < POOR_MAX && m->length >= NAMES_BYTES_MIN && m->old_to - m->old_from >= NAMES_BYTES_MIN &&
	       fetch_may_name(s, stage_base_source(o->stage));
}

static int request_new(struct session *s, struct offer *o, size_t first, size_t n, struct fetch_request **ret)
{
	struct fetch_request *request = calloc(1, sizeof(*request));
	const struct stage_missing *missing = stage_missing(o->stage, NULL);

	if (!request)
		return -ENOMEM;
	request->id = s->next_id++;
	request->offer = o;
	request->first = first;
	request->n = n;
	for (size_t i = first; i < first + n; i++)
		request->bytes += missing[i].length;
	s->requests_out++;
	*ret = request;
	return 0;
}

static int append_request(struct message_fetch *m, const struct fetch_request *request)
{
	const struct stage_missing *missing = stage_missing(request->offer->stage, NULL);
	struct message_request *out = &m->v[m->n];
	const struct named_pieces *pieces = request->pieces;

	*out = (struct message_request){.id = request->id, .content = request->offer->theirs.content, .n = request->n};
	out->path = strdup(request->offer->path);
	out->v = calloc(request->n, sizeof(*out->v));
	out->names = pieces ? calloc(pieces->n + 1, sizeof(*out->names)) : NULL;
	if (!out->path || !out->v || (pieces && !out->names)) {
		message_request_deinit(out); /* what is in *m is sent all the same */
		return -ENOMEM;
	}
	m->n++;
	for (size_t i = 0; i < request->n; i++) {
		out->v[i].offset = missing[request->first + i].offset;
		out->v[i].length = missing[request->first + i].length;
	}
	out->n_names = pieces ? pieces->n : 0;
	out->piece_bits = pieces ? pieces->bits : 0;
	for (size_t i = 0; i < out->n_names; i++)
		out->names[i] = pieces->v[i].name;
	return 0;
}

static int send_fetch(struct session *s, struct message_fetch *m)
{
	union message out = {.fetch = *m};
	int r = m->n ? session_send(s, MESSAGE_FETCH, &out) : 0;

	for (size_t i = 0; i < m->n; i++)
		message_request_deinit(&m->v[i]);
	m->n = 0;
	return r;
}

/* Sends what is in *m, if this one has no room beside it. Takes the request over: answers are due. */
static int send_request(struct session *s, struct message_fetch *m, struct fetch_request *request)
{
	size_t names = request->pieces ? request->pieces->n : 0;
	int r = 0;

	for (size_t i = 0; i < m->n; i++)
		names += m->v[i].n_names;
	if (m->n == MESSAGE_FETCH_MAX || names > MESSAGE_NAMES_MAX)
		r = send_fetch(s, m);
	*s->fetches_tail = request;
	s->fetches_tail = &request->next;
	return r < 0 ? r : append_request(m, request);
}

/* How many of the missing chunks, from the next one on, are one request. If they are to be named, *ret_bits is set. */
static size_t request_length(const struct session *s, const struct offer *o, uint8_t *ret_bits, size_t *ret_names)
{
	const struct stage_missing *missing;
	uint64_t bytes_max = s->options.window_bytes < REQUEST_BYTES ? s->options.window_bytes : REQUEST_BYTES;
	uint64_t bytes = 0, old = 0, names = 0;
	size_t n, i;

	*ret_bits = 0;
	missing = stage_missing(o->stage, &n);
	for (i = o->next_missing; i < n && i - o->next_missing < MESSAGE_RANGES_MAX; i++) {
		const struct stage_missing *m = &missing[i];
		bool pays = names_pay(s, o, m);
		uint8_t bits = pays ? pieces_bits(m->old_to - m->old_from) : 0;

		bits = bits < *ret_bits ? *ret_bits : bits;
		old += pays ? m->old_to - m->old_from : 0;
		if (i > o->next_missing && (bytes + m->length > bytes_max || (bits && old >> bits > NAMES_WANTED)))
			break;
		*ret_bits = bits;
		names = bits ? 2 * (old >> bits) + 4 : 0;
		bytes += m->length;
	}
	*ret_names = names < PIECES_NAMES_MAX ? names : PIECES_NAMES_MAX;
	return i - o->next_missing;
}

/* The next request of an offer: into *m, or to be named first. */
static int add_request(struct session *s, struct offer *o, struct message_fetch *m)
{
	struct fetch_request *request;
	uint8_t bits;
	size_t names, n = request_length(s, o, &bits, &names);
	int r = request_new(s, o, o->next_missing, n, &request);

	if (r < 0)
		return r;
	if (bits) {
		request->pieces = fetch_pieces_new(s, bits, names);
		if (!request->pieces) {
			request_free(s, request);
			return -ENOMEM;
		}
	}
	o->next_missing += n;
	s->window += request->bytes;
	if (bits)
		return fetch_add_op(s, (struct stage_op){.offer = o, .request = request});
	o->refs++;
	return send_request(s, m, request);
}

static int pump_requests(struct session *s)
{
	struct message_request requests[MESSAGE_FETCH_MAX];
	struct message_fetch m = {.v = requests};
	int r = 0, sent;

	while (r == 0 && s->fetch_head && s->window < s->options.window_bytes && s->requests_out < REQUESTS_OUT_MAX &&
			s->names_out + PIECES_NAMES_MAX <= SESSION_NAMES_MAX) {
		struct offer *o = s->fetch_head;
		size_t n = 0;

		if (!o->failed && !o->walk && o->unwritten)
			stage_missing(o->stage, &n);
		if (o->next_missing < n) {
			r = add_request(s, o, &m);
			continue;
		}
		s->fetch_head = o->next_fetch;
		if (!s->fetch_head)
			s->fetch_tail = &s->fetch_head;
		if (!o->failed && o->walk)
			r = fetch_pump_walk(s, o);
		fetch_close(o);
	}
	sent = send_fetch(s, &m);
	return r < 0 ? r : sent;
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
	if (!*at)
		s->fetches_tail = at;
	request_free(s, request);
	o->refs--;
	fetch_close(o);
}

/* The chunk that is to come next. */
static const struct stage_missing *next_chunk(const struct fetch_request *request)
{
	return &stage_missing(request->offer->stage, NULL)[request->first + request->done];
}

/* All of the chunk that was to come next came: to be dealt with by this op, which takes `bytes` over. */
static int chunk_came(struct session *s, struct fetch_request **at, uint8_t *bytes, size_t n, struct named_pieces *pieces)
{
	struct fetch_request *request = *at;
	struct offer *o = request->offer;
	int r = 0;

	if (o->failed) {
		s->window -= next_chunk(request)->length;
		free(bytes);
	} else {
		if (pieces)
			pieces->refs++;
		r = fetch_add_op(s, (struct stage_op){.offer = o,
				      .pieces = pieces,
				      .missing = request->first + request->done,
				      .bytes = bytes,
				      .n = n});
	}
	request->at = 0;
	if (++request->done == request->n)
		request_over(s, at);
	return r;
}

/* An answer to names, that took so many bytes to tell a chunk. */
static void count_poor(struct offer *o, size_t told, uint32_t length)
{
	o->poor = told > length - length / 10 ? o->poor + 1 : 0;
}

int fetch_data(struct session *s, const struct message_data *m)
{
	struct fetch_request **at = find_request(s, m->id), *request = *at;
	const struct stage_missing *chunk;

	if (!request || m->range != request->done || m->at != request->at)
		return session_protocol_error(s, "DATA that nobody asked for");
	chunk = next_chunk(request);
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
	if (request->pieces)
		count_poor(request->offer, chunk->length, chunk->length);
	return chunk_came(s, at, steal(request->chunk), chunk->length, NULL);
}

int fetch_pieces(struct session *s, const struct message_pieces *m)
{
	struct fetch_request **at = find_request(s, m->id), *request = *at;
	const struct stage_missing *chunk;
	uint8_t *bytes;

	if (!request || !request->pieces || m->range != request->done || request->at)
		return session_protocol_error(s, "PIECES that nobody asked for");
	chunk = next_chunk(request);
	if (!m->n || m->n >= chunk->length)
		return session_protocol_error(s, "PIECES that are longer than what they tell");
	bytes = malloc(m->n);
	if (!bytes)
		return -ENOMEM;
	memcpy(bytes, m->bytes, m->n);
	s->content_in += m->n;
	count_poor(request->offer, m->n, chunk->length);
	return chunk_came(s, at, bytes, m->n, request->pieces);
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
	fetch_fail(request->offer, m->reason == MESSAGE_GONE_CHANGED ? -ESTALE : -EIO);
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

static int read_old(void *ret, size_t n, uint64_t offset, void *data)
{
	size_t got = 0;
	int r = file_read(*(int *)data, ret, n, offset, &got);

	return r ? r : got != n;
}

/* Nothing that the old version is now can be wrong here: then there is less to refer to. */
static int name_pieces(struct session *s, struct fetch_request *request)
{
	const struct stage_missing *missing = stage_missing(request->offer->stage, NULL);
	struct named_pieces *pieces = request->pieces;
	cleanup_close int fd = -1;
	cleanup(buf_deinit) struct buf bytes = BUF_INIT;
	uint64_t done = 0;

	if (stage_open_base(request->offer->stage, &fd) != 0)
		return 0;
	for (size_t i = request->first; i < request->first + request->n; i++) {
		uint64_t from = missing[i].old_from > done ? missing[i].old_from : done;
		size_t got = 0;

		if (missing[i].old_to <= from)
			continue;
		done = missing[i].old_to;
		buf_clear(&bytes);
		if (!buf_reserve(&bytes, (size_t)(done - from)))
			return -ENOMEM;
		if (file_read(fd, bytes.data, (size_t)(done - from), from, &got) == 0)
			pieces_cut(bytes.data, got, from, pieces->bits, s->seed, pieces->v, pieces->max, &pieces->n);
	}
	return 0;
}

/* STAGE_MISMATCH also where it can't be put together any more. */
static int write_rebuilt(struct stage_op *op, uint32_t chunk, uint32_t length)
{
	cleanup_close int fd = -1;
	cleanup_free uint8_t *bytes = NULL;
	int r;

	if (stage_open_base(op->offer->stage, &fd) != 0)
		return STAGE_MISMATCH;
	bytes = malloc(length);
	if (!bytes)
		return -ENOMEM;
	r = pieces_rebuild(op->bytes, op->n, op->pieces->v, op->pieces->n, read_old, &fd, bytes, length);
	if (r != 0)
		return r < 0 ? r : STAGE_MISMATCH;
	return stage_write(op->offer->stage, chunk, bytes, length);
}

static int run_op(struct session *s, struct stage_op *op)
{
	const struct stage_missing *m;

	if (op->entries)
		return stage_chunks(op->offer->stage, op->entries, op->n_entries, s->reuse);
	if (op->request)
		return name_pieces(s, op->request);
	m = &stage_missing(op->offer->stage, NULL)[op->missing];
	if (op->pieces)
		return write_rebuilt(op, m->chunk, m->length);
	return stage_write(op->offer->stage, m->chunk, op->bytes, op->n);
}

void fetch_run_stage(struct session_job *job)
{
	for (struct stage_op *op = job->ops; op; op = op->next) {
		struct offer *o = op->offer;

		do
			op->result = run_op(job->session, op);
		while (!op->entries && fetch_make_room(job->session->replica, op->result));
		if (op->result == 0 && op->entries)
			op->result = check_room(job->session, o->stage);
		if (op->result == STAGE_COMPLETE) {
			int r = stage_finish(o->stage, &o->theirs, job->session->options.preserve_owner);

			if (r < 0)
				op->result = r;
		}
	}
}

/* The chunk that was put together is not the one: ask for all of it. Its bytes stay in the window. */
static int ask_whole(struct session *s, struct stage_op *op, struct message_fetch *m)
{
	struct fetch_request *request;
	int r = request_new(s, op->offer, op->missing, 1, &request);

	if (r < 0)
		return r;
	op->offer->refs++;
	return send_request(s, m, request);
}

static int named(struct session *s, struct stage_op *op, struct message_fetch *m)
{
	struct fetch_request *request = steal(op->request);
	struct named_pieces *pieces = request->pieces;

	if (op->offer->failed || op->result < 0) {
		s->window -= request->bytes;
		request_free(s, request);
		return 0;
	}
	s->names_out -= pieces->max - pieces->n;
	pieces->max = pieces->n;
	if (!pieces->n) {
		fetch_pieces_unref(s, pieces);
		request->pieces = NULL;
	}
	op->offer->refs++;
	return send_request(s, m, request);
}

/* The op's outcome; the offer has it no more. */
static int op_over(struct session *s, struct stage_op *op, struct message_fetch *m)
{
	struct offer *o = op->offer;
	bool again = op->pieces && op->result == STAGE_MISMATCH && !o->failed;
	size_t n;
	int r = 0;

	if (!op->entries && !op->request && !again)
		s->window -= stage_missing(o->stage, &n)[op->missing].length;
	if (op->result == -EBADMSG && op->pieces)
		return session_protocol_error(s, "PIECES that refer to nothing");
	if (op->result < 0) {
		fetch_fail(o, op->result);
	} else if (again) {
		return ask_whole(s, op, m);
	} else if (op->result == STAGE_MISMATCH) {
		fetch_fail(o, -ESTALE);
	} else if (op->result == STAGE_COMPLETE) {
		o->staged = true;
	} else if (op->entries && !o->failed) {
		stage_missing(o->stage, &n);
		o->unwritten = n;
		want_content(s, o);
	}
	if (op->request)
		r = named(s, op, m);
	return r;
}

int fetch_done_stage(struct session *s, struct session_job *job)
{
	struct message_request requests[MESSAGE_FETCH_MAX];
	struct message_fetch m = {.v = requests};
	int r = 0, sent;

	for (struct stage_op *op = job->ops; op && r >= 0; op = op->next) {
		op->offer->refs--;
		r = op_over(s, op, &m);
		fetch_close(op->offer);
	}
	sent = send_fetch(s, &m);
	return r < 0 ? r : sent;
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
		fetch_fail(o, -EFBIG);
		fetch_close(o);
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
		r = fetch_begin_walk(o);
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
	return !s->ops_head && !s->requests_out && !s->nodes_out;
}

void fetch_content_free(struct session *s, struct offer *o)
{
	if (o->counted)
		s->chunks_held -= o->chunks;
	fetch_walk_free(o->walk);
}

void fetch_content_reset(struct session *s)
{
	while (s->fetches) {
		struct fetch_request *request = s->fetches;

		s->fetches = request->next;
		request_free(s, request);
	}
	s->fetches_tail = &s->fetches;
	fetch_nodes_reset(s);
	while (s->ops_head) {
		struct stage_op *op = s->ops_head;

		s->ops_head = op->next;
		fetch_op_free(s, op);
	}
	s->ops_tail = &s->ops_head;
	s->fetch_head = NULL;
	s->fetch_tail = &s->fetch_head;
	s->tree_head = NULL;
	s->tree_tail = &s->tree_head;
}
