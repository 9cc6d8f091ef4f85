/*
 * transfer/serve.c — content and chunk-tree nodes for the peer.
 *
 * Requests wait in a queue and are read one at a time on the read lane, and only while the output is short: a peer that
 * asks for much and reads slowly holds up nobody but itself. What is read is what stands on disk now; the peer checks it
 * against the hash that it asked for.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "transfer/session_internal.h"

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
		s->serve_names += request->request.n_names;
		*s->serve_tail = request;
		s->serve_tail = &request->next;
		s->serve_n++;
	}
	return s->serve_names > SESSION_NAMES_MAX ? session_protocol_error(s, "too many names at once") : 0;
}

int serve_nodes(struct session *s, const struct message_nodes_ask *m)
{
	struct message_node nodes[MESSAGE_NODES_MAX];
	struct buf payloads[MESSAGE_NODES_MAX];
	union message answer = {.nodes = {.id = m->id, .v = nodes, .n = m->n}};
	struct index_txn *t = NULL;
	int r;

	if (!session_we_send(s))
		return session_protocol_error(s, "NODES_ASK from a side that does not send");
	memset(nodes, 0, sizeof(nodes));
	memset(payloads, 0, sizeof(payloads));
	r = index_begin_read(replica_index(s->replica), &t);
	for (size_t i = 0; i < m->n && r >= 0; i++) {
		r = index_node_get(t, &m->v[i], &nodes[i].level, &payloads[i]);
		nodes[i].present = r == 0;
		nodes[i].payload = payloads[i].data;
		nodes[i].n = payloads[i].len;
	}
	index_abort(t);
	if (r >= 0)
		r = session_send(s, MESSAGE_NODES, &answer);
	for (size_t i = 0; i < m->n; i++)
		buf_deinit(&payloads[i]);
	return r;
}

/* --- on the read lane --- */

DEFINE_CLEANUP(struct pieces_table *, pieces_table_free)

struct open_state {
	struct replica *replica;
	int fd;
};

static int open_path(struct replica *replica, const char *path, int *ret_fd)
{
	cleanup_close int dir = -1;
	const char *name;
	int r = file_open_parent(store_root(replica_store(replica)), path, &dir, &name);

	return r ? r : file_open_read(dir, name, ret_fd);
}

static int open_same_content(const char *path, void *data)
{
	struct open_state *state = data;

	return open_path(state->replica, path, &state->fd) == 0;
}

/* Open a file that has the content as of the index: at the path, else wherever it stands. */
static int open_content(struct replica *replica, const struct message_request *request, int *ret_fd)
{
	struct open_state state = {.replica = replica, .fd = -1};
	struct index_txn *t = NULL;
	struct row row = {0};
	int r = index_begin_read(replica_index(replica), &t);

	if (r < 0)
		return r;
	r = index_get(t, request->path, &row);
	if (r == 0 && row_live(&row) && row.place == ROW_ON_DISK && row.record.kind == RECORD_FILE &&
			content_equal(&row.record.content, &request->content))
		r = open_path(replica, request->path, &state.fd);
	if (r >= 0 && state.fd < 0)
		r = index_by_content(t, &request->content, open_same_content, &state);
	row_deinit(&row);
	index_abort(t);
	if (state.fd < 0)
		return r < 0 ? r : FILE_VANISHED;
	*ret_fd = state.fd;
	return 0;
}

static int read_range(const struct message_fetch_range *range, int fd, struct buf *ret)
{
	uint8_t *room = buf_reserve(ret, range->length);
	size_t got = 0;
	int r = room ? file_read(fd, room, range->length, range->offset, &got) : -ENOMEM;

	return r == 0 && got < range->length ? FILE_VANISHED : r;
}

/* One range's bytes are the last in job->data: replace them by references and literals, if these are shorter. */
static int tell_pieces(struct session_job *job, size_t range, const struct pieces_table *table)
{
	const struct message_request *request = &job->request->request;
	size_t length = request->v[range].length, start = job->data.len - length;
	cleanup(buf_deinit) struct buf answer = BUF_INIT;
	size_t max = length < MESSAGE_PIECES_BYTES_MAX ? length : MESSAGE_PIECES_BYTES_MAX;
	int r;

	if (!length)
		return 0;
	r = pieces_answer(table, job->data.data + start, length, request->piece_bits, job->session->seed, max - 1, &answer);
	if (r != 0)
		return r < 0 ? r : 0;
	memcpy(job->data.data + start, answer.data, answer.len);
	job->data.len = start + answer.len;
	job->told[range] = answer.len;
	return 0;
}

void serve_run_read(struct session_job *job)
{
	const struct message_request *request = &job->request->request;
	cleanup(pieces_table_free_p) struct pieces_table *table = NULL;
	cleanup_close int fd = -1;
	int r = open_content(job->session->replica, request, &fd);

	job->told = calloc(request->n ? request->n : 1, sizeof(*job->told));
	if (r == 0 && !job->told)
		r = -ENOMEM;
	if (r == 0 && request->n_names)
		r = pieces_table_new(&table, request->names, request->n_names);
	for (size_t i = 0; i < request->n && r == 0; i++) {
		r = read_range(&request->v[i], fd, &job->data);
		if (r == 0 && table)
			r = tell_pieces(job, i, table);
	}
	job->gone = r == 0 ? 0 : r == FILE_VANISHED ? MESSAGE_GONE_CHANGED : MESSAGE_GONE_ERROR;
}

static int send_data(struct session *s, uint32_t id, uint32_t range, const uint8_t *p, uint32_t length)
{
	uint32_t at = 0;
	int r;

	do {
		uint32_t part = length - at < MESSAGE_DATA_BYTES_MAX ? length - at : MESSAGE_DATA_BYTES_MAX;
		union message m = {.data = {.id = id, .range = range, .at = at, .bytes = p, .n = part}};

		r = session_send(s, MESSAGE_DATA, &m);
		at += part;
		p += part;
		s->content_out += part;
	} while (r == 0 && at < length);
	return r;
}

int serve_done_read(struct session *s, struct session_job *job)
{
	const struct message_request *request = &job->request->request;
	union message gone = {.gone = {.id = request->id, .reason = job->gone}};
	const uint8_t *p = job->data.data;
	int r = 0;

	if (job->gone)
		return session_send(s, MESSAGE_GONE, &gone);
	for (uint32_t i = 0; i < request->n && r == 0; i++) {
		union message m = {.pieces = {.id = request->id, .range = i, .bytes = p, .n = job->told[i]}};

		if (job->told[i]) {
			r = session_send(s, MESSAGE_PIECES, &m);
			s->content_out += job->told[i];
			p += job->told[i];
		} else {
			r = send_data(s, request->id, i, p, request->v[i].length);
			p += request->v[i].length;
		}
	}
	return r;
}

int serve_pump(struct session *s)
{
	struct serve_request *request = s->serve_head;
	struct session_job *job;

	if (!request || s->out.len - s->out_at > SESSION_OUTPUT_HIGH || s->lane_busy[SESSION_LANE_READ] ||
			s->queue[SESSION_LANE_READ])
		return 0;
	job = session_job_new(s, JOB_READ, SESSION_LANE_READ);
	if (!job)
		return -ENOMEM;
	s->serve_head = request->next;
	if (!s->serve_head)
		s->serve_tail = &s->serve_head;
	s->serve_n--;
	s->serve_names -= request->request.n_names;
	job->request = request;
	session_job_queue(s, job);
	return 0;
}

void serve_reset(struct session *s)
{
	while (s->serve_head) {
		struct serve_request *request = s->serve_head;

		s->serve_head = request->next;
		message_request_deinit(&request->request);
		free(request);
	}
	s->serve_tail = &s->serve_head;
	s->serve_n = s->serve_names = 0;
}
