/*
 * transfer/serve.c — content and chunk-tree nodes for the peer.
 *
 * Requests wait in a queue and are answered on the read lane, many in one job, and only while the output is short: a peer that
 * asks for much and reads slowly holds up nobody but itself. The job compresses, too, so that the caller's thread only moves
 * bytes. What is read is what stands on disk now; the peer checks it against the hash that it asked for.
 *
 * The compression of content follows the backlog: where the output was empty each time when more of it was read, the wire waits for
 * us, and less is spent on each byte; where it was not empty for longer than what the peer asks for without having dealt with it, the
 * wire is what is waited for, and there is time for more.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "base/error.h"
#include "transfer/session_internal.h"

/* In one job: more would keep the wire waiting, less would be spent on handing over. */
#define READ_BYTES (512 * 1024)
#define READ_REQUESTS 128
#define WIRE_FREE_BYTES ((uint64_t)8 * 1024 * 1024)
#define WIRE_BUSY_BYTES (2 * (uint64_t)SESSION_WINDOW_BYTES)

static const int levels[SERVE_LEVELS] = {1, 3, 6, 9}; /* of zstd */

/* A content is asked for in many requests of one round; in another one, only if something went wrong with it. */
static void note_asked(struct session *s, const struct message_request *request)
{
	struct served now = {.round = s->round};
	uint64_t seed;

	memcpy(&seed, request->content.root.bytes, sizeof(seed));
	now.name = XXH3_64bits_withSeed(request->path, strlen(request->path), seed);

	for (size_t i = 0; i < SERVED_MAX; i++) {
		struct served *was = &s->served[i];

		if (was->name != now.name)
			continue;
		if (was->round != now.round && s->options.host.doubted)
			s->options.host.doubted(s, request->path, s->options.host.data);
		was->round = now.round;
		return;
	}
	s->served[s->served_at++ % SERVED_MAX] = now;
}

int serve_fetch(struct session *s, struct message_fetch *m)
{
	if (!session_we_send(s))
		return session_protocol_error(s, "FETCH from a side that does not send");
	if (s->serve_n + m->n > SESSION_REQUESTS_MAX)
		return session_protocol_error(s, "too many requests at once");
	for (size_t i = 0; i < m->n; i++) {
		struct serve_request *request = calloc(1, sizeof(*request));

		if (!request)
			return -ENOMEM;
		request->request = m->v[i];
		memset(&m->v[i], 0, sizeof(m->v[i]));
		note_asked(s, &request->request);
		s->serve_names += request->request.n_names;
		*s->serve_tail = request;
		s->serve_tail = &request->next;
		s->serve_n++;
	}
	return s->serve_names > SESSION_NAMES_MAX ? session_protocol_error(s, "too many names at once") : 0;
}

DEFINE_CLEANUP(struct pieces_table *, pieces_table_free)

/* In place of its payload, what tells it with names of the asker's; or as it is, where that is not shorter. */
static int tell_node(const struct session *s, const struct pieces_table *named, struct buf *payload, struct message_node *node)
{
	struct buf told = BUF_INIT;
	int r = pieces_answer(named, payload->data, payload->len, PIECES_ENTRIES, s->seed, payload->len, &told);

	if (r != 0) {
		buf_deinit(&told);
		return r < 0 ? r : 0;
	}
	*node = (struct message_node){.present = MESSAGE_NODE_TOLD, .level = node->level, .length = (uint32_t)payload->len};
	buf_deinit(payload);
	*payload = told;
	return 0;
}

int serve_nodes(struct session *s, const struct message_nodes_ask *m)
{
	cleanup(pieces_table_free_p) struct pieces_table *named = NULL;
	struct message_node nodes[MESSAGE_NODES_MAX];
	struct buf payloads[MESSAGE_NODES_MAX];
	union message answer = {.nodes = {.id = m->id, .v = nodes, .n = m->n}};
	struct index_txn *t = NULL;
	int r;

	if (!session_we_send(s))
		return session_protocol_error(s, "NODES_ASK from a side that does not send");
	memset(nodes, 0, sizeof(nodes));
	memset(payloads, 0, sizeof(payloads));
	r = m->n_names ? pieces_table_new(&named, m->names, m->n_names) : 0;
	if (r == 0)
		r = index_begin_read(replica_index(s->replica), &t);
	for (size_t i = 0; i < m->n && r >= 0; i++) {
		r = index_node_get(t, &m->v[i], &nodes[i].level, &payloads[i]);
		nodes[i].present = r == 0 ? MESSAGE_NODE_WHOLE : MESSAGE_NODE_ABSENT;
		if (r == 0 && named)
			r = tell_node(s, named, &payloads[i], &nodes[i]);
		nodes[i].payload = payloads[i].data;
		nodes[i].n = payloads[i].len;
	}
	index_abort(t);
	if (r >= 0)
		r = session_send(s, named ? MESSAGE_NODES_TOLD : MESSAGE_NODES, &answer);
	for (size_t i = 0; i < m->n; i++)
		buf_deinit(&payloads[i]);
	return r;
}

/* --- on the read lane --- */

/* The directory where the last file was, as the next one is likely to be there, too. */
struct open_state {
	struct replica *replica;
	char parent[FILE_PATH_BYTES_MAX + 1];
	int dir; /* -1: none */
	int fd;	 /* what was found, or -1 */
};

static int open_path(struct open_state *state, const char *path)
{
	size_t n = path_parent_length(path);
	const char *name = path + n + (n != 0);
	int r = 0;

	if (state->dir < 0 || strncmp(state->parent, path, n) != 0 || state->parent[n]) {
		state->dir = close_keep(state->dir);
		r = file_open_parent(store_root(replica_store(state->replica)), path, &state->dir, &name);
		if (r == 0) {
			memcpy(state->parent, path, n);
			state->parent[n] = '\0';
		}
	}
	return r ? r : file_open_read(state->dir, name, &state->fd);
}

static int open_same_content(const char *path, void *data)
{
	return open_path(data, path) == 0;
}

/* Open a file that has the content as of the index: at the path, else wherever it stands. */
static int open_content(struct open_state *state, const struct message_request *request)
{
	struct index_txn *t = NULL;
	struct row row = {0};
	int r = index_begin_read(replica_index(state->replica), &t);

	if (r < 0)
		return r;
	r = index_get(t, request->path, &row);
	if (r == 0 && row_live(&row) && row.place == ROW_ON_DISK && row.record.kind == RECORD_FILE &&
			content_equal(&row.record.content, &request->content))
		r = open_path(state, request->path);
	if (r >= 0 && state->fd < 0)
		r = index_by_content(t, &request->content, open_same_content, state);
	row_deinit(&row);
	index_abort(t);
	if (state->fd < 0)
		return r < 0 ? r : FILE_VANISHED;
	return 0;
}

/* What was read and not told yet: small ranges wait here for each other. */
struct reading {
	struct buf bytes;
	struct message_data v[MESSAGE_BULK_MAX]; /* bytes: set as they are told, for `bytes` moves */
	size_t n;
	bool joins; /* else each is told by itself */
};

/* Behind what is there. On failure nothing is. */
static int read_range(const struct message_fetch_range *range, int fd, struct buf *bytes)
{
	size_t had = bytes->len, got = 0;
	uint8_t *room = buf_reserve(bytes, range->length);
	int r = room ? file_read(fd, room, range->length, range->offset, &got) : -ENOMEM;

	if (r == 0 && got < range->length)
		r = FILE_VANISHED;
	if (r != 0)
		bytes->len = had;
	return r;
}

/* Replace a range's bytes by references and literals, if these are shorter. */
static int tell_pieces(struct session_job *job, const struct message_request *request, uint32_t range, const struct buf *bytes,
	const struct pieces_table *table)
{
	cleanup(buf_deinit) struct buf answer = BUF_INIT;
	size_t max = bytes->len < MESSAGE_PIECES_BYTES_MAX ? bytes->len : MESSAGE_PIECES_BYTES_MAX;
	union message m = {.pieces = {.id = request->id, .range = range}};
	int r;

	r = pieces_answer(table, bytes->data, bytes->len, request->piece_bits, job->session->seed, max - 1, &answer);
	if (r != 0)
		return r;
	m.pieces.bytes = answer.data;
	m.pieces.n = answer.len;
	job->content += answer.len;
	return session_prepare(job->session->read_writer, &job->frames, MESSAGE_PIECES, &m);
}

static int tell_data(struct session_job *job, uint32_t id, uint32_t range, const struct buf *bytes)
{
	size_t at = 0;
	int r;

	do {
		size_t part = bytes->len - at < MESSAGE_DATA_BYTES_MAX ? bytes->len - at : MESSAGE_DATA_BYTES_MAX;
		union message m = {.data = {.id = id, .range = range, .at = (uint32_t)at, .bytes = bytes->data + at, .n = part}};

		r = session_prepare(job->session->read_writer, &job->frames, MESSAGE_DATA, &m);
		at += part;
		job->content += part;
	} while (r == 0 && at < bytes->len);
	return r;
}

static int tell_waiting(struct session_job *job, struct reading *reading)
{
	union message m = {.bulk = {.v = reading->v, .n = reading->n}};
	const uint8_t *at = reading->bytes.data;
	int r = 0;

	for (size_t i = 0; i < reading->n; at += reading->v[i++].n)
		reading->v[i].bytes = at;
	if (reading->n == 1) {
		r = tell_data(job, reading->v[0].id, reading->v[0].range, &reading->bytes);
	} else if (reading->n) {
		r = session_prepare(job->session->read_writer, &job->frames, MESSAGE_BULK, &m);
		job->content += reading->bytes.len;
	}
	reading->n = 0;
	buf_clear(&reading->bytes);
	return r;
}

static bool may_wait(const struct reading *reading, const struct message_request *request, uint32_t length)
{
	return reading->joins && !request->n_names && length <= MESSAGE_BULK_BYTES_MAX;
}

/* Does so much more make too much of what waits? */
static bool is_full(const struct reading *reading, uint32_t length)
{
	return reading->n == MESSAGE_BULK_MAX || reading->bytes.len + length > MESSAGE_BULK_BYTES_MAX;
}

/* What came of reading it. What waits stays before what is told by itself. */
static int answer(struct session_job *job, const struct message_request *request, struct open_state *state, struct reading *reading)
{
	cleanup(pieces_table_free_p) struct pieces_table *table = NULL;
	struct buf *bytes = &reading->bytes;
	int r = open_content(state, request);

	if (r == 0 && request->n_names)
		r = pieces_table_new(&table, request->names, request->n_names);
	for (uint32_t i = 0; i < request->n && r == 0 && job->error == 0; i++) {
		bool waits = may_wait(reading, request, request->v[i].length);
		int told = PIECES_LONG;

		if (!waits || is_full(reading, request->v[i].length))
			job->error = tell_waiting(job, reading);
		if (job->error == 0)
			r = read_range(&request->v[i], state->fd, bytes);
		if (r != 0 || job->error)
			break;
		if (waits) {
			reading->v[reading->n++] = (struct message_data){.id = request->id, .range = i, .n = request->v[i].length};
			continue;
		}
		if (table && bytes->len)
			told = tell_pieces(job, request, i, bytes, table);
		job->error = told > 0 ? tell_data(job, request->id, i, bytes) : told;
		buf_clear(bytes);
	}
	state->fd = close_keep(state->fd);
	return r;
}

uint8_t *serve_small(struct replica *replica, const char *path, const struct content *content)
{
	struct open_state state = {.replica = replica, .dir = -1, .fd = -1};
	size_t size = (size_t)content->size, got = 0;
	uint8_t *bytes = malloc(size ? size : 1);
	struct hash hash;
	bool same = bytes && open_path(&state, path) == 0 && file_read(state.fd, bytes, size, 0, &got) == 0 && got == size;

	close_keep(state.fd);
	close_keep(state.dir);
	if (same) {
		hash_bytes(store_algorithm(replica_store(replica)), bytes, size, &hash);
		same = hash_equal(&hash, &content->root);
	}
	if (same)
		return bytes;
	free(bytes);
	return NULL;
}

void serve_run_read(struct session_job *job)
{
	struct open_state state = {.replica = job->session->replica, .dir = -1, .fd = -1};
	struct reading reading = {.bytes = BUF_INIT, .joins = job->joins};

	for (struct serve_request *q = job->requests; q && job->error == 0; q = q->next) {
		int r = answer(job, &q->request, &state, &reading);
		union message gone = {.gone = {.id = q->request.id,
					      .reason = r == FILE_VANISHED ? MESSAGE_GONE_CHANGED : MESSAGE_GONE_ERROR}};

		if (r != 0 && job->error == 0)
			job->error = tell_waiting(job, &reading);
		if (r != 0 && job->error == 0)
			job->error = session_prepare(job->session->read_writer, &job->frames, MESSAGE_GONE, &gone);
	}
	if (job->error == 0)
		job->error = tell_waiting(job, &reading);
	buf_deinit(&reading.bytes);
	close_keep(state.dir);
}

void serve_watch_wire(struct session *s, uint64_t content, bool taken)
{
	s->wire_free = taken ? s->wire_free + content : 0;
	s->wire_busy = taken ? 0 : s->wire_busy + content;
	if (s->wire_free >= WIRE_FREE_BYTES && s->level > 0) {
		s->level--;
		s->wire_free = 0;
	} else if (s->wire_busy >= WIRE_BUSY_BYTES && s->level < SERVE_LEVELS - 1) {
		s->level++;
		s->wire_busy = 0;
	}
}

int serve_done_read(struct session *s, struct session_job *job)
{
	if (job->error)
		return job->error;
	s->content_out += job->content;
	serve_watch_wire(s, job->content, s->out.len == s->out_at);
	return session_send_prepared(s, &job->frames);
}

static uint64_t request_bytes(const struct message_request *request)
{
	uint64_t bytes = 0;

	for (size_t i = 0; i < request->n; i++)
		bytes += request->v[i].length;
	return bytes;
}

int serve_pump(struct session *s)
{
	struct serve_request **at = &s->serve_head;
	struct session_job *job;
	uint64_t bytes = 0, bytes_max = s->options.output_high < READ_BYTES ? s->options.output_high : READ_BYTES;

	if (!*at || s->out.len - s->out_at > s->options.output_high || s->lane_busy[SESSION_LANE_READ] ||
			s->queue[SESSION_LANE_READ])
		return 0;
	job = session_job_new(s, JOB_READ, SESSION_LANE_READ);
	if (!job)
		return -ENOMEM;
	frame_writer_level(s->read_writer, levels[s->level]);
	job->requests = s->serve_head;
	job->joins = frame_reader_version(s->reader) >= FRAME_VERSION_BULK;
	for (size_t n = 0; *at && n < READ_REQUESTS && bytes < bytes_max; n++, at = &(*at)->next) {
		bytes += request_bytes(&(*at)->request);
		s->serve_n--;
		s->serve_names -= (*at)->request.n_names;
	}
	s->serve_head = *at;
	*at = NULL;
	if (!s->serve_head)
		s->serve_tail = &s->serve_head;
	session_job_queue(s, job);
	return 0;
}

void serve_requests_free(struct serve_request *list)
{
	while (list) {
		struct serve_request *request = list;

		list = request->next;
		message_request_deinit(&request->request);
		free(request);
	}
}

void serve_reset(struct session *s)
{
	serve_requests_free(s->serve_head);
	s->serve_head = NULL;
	s->serve_tail = &s->serve_head;
	s->serve_n = s->serve_names = 0;
}
