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
		m->v[i].path = NULL;
		m->v[i].v = NULL;
		*s->serve_tail = request;
		s->serve_tail = &request->next;
		s->serve_n++;
	}
	return 0;
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

void serve_run_read(struct session_job *job)
{
	const struct message_request *request = &job->request->request;
	cleanup_close int fd = -1;
	int r = open_content(job->session->replica, request, &fd);

	for (size_t i = 0; i < request->n && r == 0; i++) {
		uint8_t *room = buf_reserve(&job->data, request->v[i].length);
		size_t got = 0;

		if (!room) {
			r = -ENOMEM;
			break;
		}
		r = file_read(fd, room, request->v[i].length, request->v[i].offset, &got);
		if (r == 0 && got < request->v[i].length)
			r = FILE_VANISHED;
	}
	job->gone = r == 0 ? 0 : r == FILE_VANISHED ? MESSAGE_GONE_CHANGED : MESSAGE_GONE_ERROR;
}

int serve_done_read(struct session *s, struct session_job *job)
{
	const struct message_request *request = &job->request->request;
	union message gone = {.gone = {.id = request->id, .reason = job->gone}};
	const uint8_t *p = job->data.data;
	int r = 0;

	if (job->gone)
		return session_send(s, MESSAGE_GONE, &gone);
	for (size_t i = 0; i < request->n && r == 0; i++) {
		uint32_t at = 0, length = request->v[i].length;

		do {
			uint32_t part = length - at < MESSAGE_DATA_BYTES_MAX ? length - at : MESSAGE_DATA_BYTES_MAX;
			union message m = {.data = {.id = request->id, .range = (uint32_t)i, .at = at, .bytes = p, .n = part}};

			r = session_send(s, MESSAGE_DATA, &m);
			at += part;
			p += part;
			s->content_out += part;
		} while (r == 0 && at < length);
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
	job->request = request;
	session_job_queue(s, job);
	return 0;
}

void serve_reset(struct session *s)
{
	while (s->serve_head) {
		struct serve_request *request = s->serve_head;

		s->serve_head = request->next;
		free(request->request.path);
		free(request->request.v);
		free(request);
	}
	s->serve_tail = &s->serve_head;
	s->serve_n = 0;
}
