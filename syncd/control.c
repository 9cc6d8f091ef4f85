/* syncd/control.c — see syncd/control.h. */
#include "syncd/control.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/error.h"
#include "syncd/exit_codes.h"

#define BACKLOG 32
#define CONNECTIONS_MAX 256
#define PAUSE_MS 100
#define SILENT_MAX 8 /* connections of one user that have not asked anything yet */

struct control_connection {
	struct control_server *server;
	uv_poll_t poll;
	int fd;
	struct buf in, out;
	struct control_request request;
	bool asked;    /* the handler has it */
	bool answered;
	bool over;     /* the client is gone */
	void (*gone)(void *data);
	void *gone_data;
	struct control_connection *next;
};

struct control_server {
	uv_poll_t poll;
	uv_timer_t pause; /* no descriptor was left for a connection: not asked again at once */
	unsigned handles;
	int fd;
	char path[sizeof(((struct sockaddr_un *)0)->sun_path)];
	control_handler *handler;
	void *data;
	struct control_connection *connections;
	size_t n;
	bool closing;
};

void control_default_socket(char *ret, size_t n)
{
	const char *named = getenv("SYNCD_SOCKET"), *runtime = getenv("XDG_RUNTIME_DIR");

	if (named && *named)
		snprintf(ret, n, "%s", named);
	else if (geteuid() == 0)
		snprintf(ret, n, "/run/syncd.sock");
	else if (runtime && *runtime)
		snprintf(ret, n, "%s/syncd.sock", runtime);
	else
		snprintf(ret, n, "/tmp/syncd-%u/syncd.sock", (unsigned)geteuid());
}

static int socket_address(const char *path, struct sockaddr_un *ret)
{
	*ret = (struct sockaddr_un){.sun_family = AF_UNIX};
	if (strlen(path) >= sizeof(ret->sun_path))
		return -ENAMETOOLONG;
	strcpy(ret->sun_path, path);
	return 0;
}

/* --- server --- */

static void drop_fds(struct control_request *r)
{
	for (size_t i = 0; i < CONTROL_FDS_MAX; i++)
		r->fds[i] = close_keep(r->fds[i]);
}

static void server_free_if_over(struct control_server *s)
{
	if (!s->handles && !s->connections)
		free(s);
}

static void on_connection_closed(uv_handle_t *handle)
{
	struct control_connection *c = handle->data, **at;
	struct control_server *s = c->server;

	for (at = &s->connections; *at != c; at = &(*at)->next)
		;
	*at = c->next;
	s->n--;
	close_keep(c->fd);
	drop_fds(&c->request);
	buf_deinit(&c->in);
	buf_deinit(&c->out);
	free(c);
	server_free_if_over(s);
}

static void connection_close(struct control_connection *c)
{
	if (!uv_is_closing((uv_handle_t *)&c->poll))
		uv_close((uv_handle_t *)&c->poll, on_connection_closed);
}

/* Who was to answer is told, and forgets the connection. */
static void connection_drop(struct control_connection *c)
{
	void (*gone)(void *data) = c->gone;

	c->gone = NULL;
	c->over = true;
	if (gone)
		gone(c->gone_data);
	connection_close(c);
}

static void on_connection(uv_poll_t *handle, int status, int events);

static void connection_write(struct control_connection *c)
{
	while (c->out.len) {
		ssize_t n = send(c->fd, c->out.data, c->out.len, MSG_NOSIGNAL);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno == EAGAIN) {
			uv_poll_start(&c->poll, UV_WRITABLE, on_connection);
			return;
		}
		if (n < 0)
			break;
		buf_consume(&c->out, (size_t)n);
	}
	connection_close(c);
}

void control_answer(struct control_connection *c, json_t *answer)
{
	char *text = answer ? json_dumps(answer, JSON_COMPACT) : NULL;

	json_decref(answer);
	c->answered = true;
	c->gone = NULL;
	if (c->over) {
		free(text);
		connection_close(c);
		return;
	}
	if (text)
		put_bytes(&c->out, text, strlen(text));
	put_u8(&c->out, '\n');
	free(text);
	connection_write(c);
}

json_t *control_error(int exit_code, const char *fmt, ...)
{
	char text[2048];
	va_list args;

	va_start(args, fmt);
	vsnprintf(text, sizeof(text), fmt, args);
	va_end(args);
	return json_pack("{s:s, s:i}", "error", text, "code", exit_code);
}

void control_on_gone(struct control_connection *c, void (*gone)(void *data), void *data)
{
	c->gone = gone;
	c->gone_data = data;
}

static void take_fds(struct control_connection *c, struct msghdr *m)
{
	for (struct cmsghdr *h = CMSG_FIRSTHDR(m); h; h = CMSG_NXTHDR(m, h)) {
		size_t n;
		int fd;

		if (h->cmsg_level != SOL_SOCKET || h->cmsg_type != SCM_RIGHTS)
			continue;
		n = (h->cmsg_len - CMSG_LEN(0)) / sizeof(int);
		for (size_t i = 0; i < n; i++) {
			memcpy(&fd, CMSG_DATA(h) + i * sizeof(int), sizeof(int));
			if (c->request.n_fds < CONTROL_FDS_MAX)
				c->request.fds[c->request.n_fds++] = fd;
			else
				close(fd);
		}
	}
}

/* A line is there: ask the handler. */
static void dispatch(struct control_connection *c, size_t n)
{
	json_error_t error;

	c->asked = true;
	c->request.json = json_loadb((const char *)c->in.data, n, 0, &error);
	if (!json_is_object(c->request.json)) {
		json_decref(c->request.json);
		control_answer(c, control_error(EXIT_USAGE, "the request is not a JSON object"));
		return;
	}
	/* The handler may answer, and so begin to close the connection, before it returns. */
	json_t *json = c->request.json;

	c->server->handler(c, &c->request, c->server->data);
	json_decref(json);
}

static void connection_read(struct control_connection *c)
{
	char bytes[16384], control[CMSG_SPACE(sizeof(int) * CONTROL_FDS_MAX)];
	struct iovec v = {.iov_base = bytes, .iov_len = sizeof(bytes)};
	struct msghdr m = {.msg_iov = &v, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof(control)};
	ssize_t n = recvmsg(c->fd, &m, MSG_CMSG_CLOEXEC);
	const char *end;

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n <= 0) {
		c->over = true;
		uv_poll_stop(&c->poll);
		if (c->gone || !c->asked || c->answered)
			connection_drop(c);
		return; /* else control_answer closes it */
	}
	take_fds(c, &m);
	if (c->asked)
		return; /* only one request a connection */
	put_bytes(&c->in, bytes, (size_t)n);
	end = memchr(c->in.data, '\n', c->in.len);
	if (end)
		dispatch(c, (size_t)(end - (const char *)c->in.data));
	else if (c->in.len > CONTROL_LINE_BYTES_MAX)
		connection_close(c);
}

static void on_connection(uv_poll_t *handle, int status, int events)
{
	struct control_connection *c = handle->data;

	if (status < 0 || events & UV_READABLE)
		connection_read(c);
	else if (events & UV_WRITABLE)
		connection_write(c);
}

/* Anybody may connect: no user may take all connections by asking nothing. */
static bool too_many(const struct control_server *s, uid_t uid)
{
	size_t silent = 0;

	for (const struct control_connection *c = s->connections; c; c = c->next)
		silent += !c->asked && c->request.uid == uid;
	return silent >= SILENT_MAX && uid != 0 && uid != geteuid();
}

static void on_listen(uv_poll_t *handle, int status, int events);

static void on_pause_over(uv_timer_t *timer)
{
	struct control_server *s = timer->data;

	uv_poll_start(&s->poll, UV_READABLE, on_listen);
}

static void on_listen(uv_poll_t *handle, int status, int events)
{
	struct control_server *s = handle->data;
	struct control_connection *c;
	struct ucred cred;
	socklen_t n = sizeof(cred);
	int fd;

	(void)status;
	(void)events;
	fd = accept4(s->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
	if (fd < 0 && errno != EAGAIN && errno != EINTR && errno != ECONNABORTED) {
		uv_poll_stop(&s->poll);
		uv_timer_start(&s->pause, on_pause_over, PAUSE_MS, 0);
	}
	if (fd < 0)
		return;
	c = s->n < CONNECTIONS_MAX ? calloc(1, sizeof(*c)) : NULL;
	if (!c || getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &n) < 0 || too_many(s, cred.uid) ||
			uv_poll_init(handle->loop, &c->poll, fd) < 0) {
		free(c);
		close(fd);
		return;
	}
	c->server = s;
	c->fd = fd;
	c->poll.data = c;
	c->request = (struct control_request){.fds = {-1, -1}, .uid = cred.uid, .gid = cred.gid, .pid = cred.pid};
	c->next = s->connections;
	s->connections = c;
	s->n++;
	uv_poll_start(&c->poll, UV_READABLE, on_connection);
}

static int listen_at(const char *path, int *ret)
{
	struct sockaddr_un address;
	cleanup_close int fd = -1, probe = -1;
	struct stat st;
	mode_t mask;
	int r = socket_address(path, &address);

	if (r < 0)
		return r;
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	/* Not blocking: a daemon that hangs with a full queue is there all the same. */
	probe = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd < 0 || probe < 0)
		return -errno;
	if (connect(probe, (struct sockaddr *)&address, sizeof(address)) == 0)
		return -EADDRINUSE; /* another daemon answers there */
	/* A file that is no socket refuses too, and is somebody's. */
	if (errno == ECONNREFUSED && lstat(path, &st) == 0 && S_ISSOCK(st.st_mode))
		unlink(path); /* left by one that was killed */
	/* Anybody may connect: each request is judged by who asks. */
	mask = umask(0111);
	r = bind(fd, (struct sockaddr *)&address, sizeof(address)) < 0 || listen(fd, BACKLOG) < 0 ? -errno : 0;
	umask(mask);
	if (r == 0)
		*ret = steal_fd(fd);
	return r;
}

int control_server_new(struct control_server **ret, uv_loop_t *loop, const char *socket, control_handler *handler, void *data)
{
	struct control_server *s = calloc(1, sizeof(*s));
	int r = s ? listen_at(socket, &s->fd) : -ENOMEM;

	if (r == 0) {
		snprintf(s->path, sizeof(s->path), "%s", socket);
		s->handler = handler;
		s->data = data;
		r = uv_poll_init(loop, &s->poll, s->fd);
	}
	if (r < 0) {
		free(s);
		return r;
	}
	uv_timer_init(loop, &s->pause);
	s->handles = 2;
	s->poll.data = s->pause.data = s;
	uv_poll_start(&s->poll, UV_READABLE, on_listen);
	*ret = s;
	return 0;
}

static void on_server_closed(uv_handle_t *handle)
{
	struct control_server *s = handle->data;

	if (--s->handles)
		return;
	close_keep(s->fd);
	server_free_if_over(s);
}

void control_server_close(struct control_server *s)
{
	if (!s || s->closing)
		return;
	s->closing = true;
	unlink(s->path);
	for (struct control_connection *c = s->connections; c; c = c->next)
		connection_drop(c);
	uv_close((uv_handle_t *)&s->poll, on_server_closed);
	uv_close((uv_handle_t *)&s->pause, on_server_closed);
}

/* --- client --- */

static int send_request(int fd, const char *text, size_t n, const int *fds, size_t n_fds)
{
	char control[CMSG_SPACE(sizeof(int) * CONTROL_FDS_MAX)] = {0};
	struct iovec v = {.iov_base = (void *)text, .iov_len = n};
	struct msghdr m = {.msg_iov = &v, .msg_iovlen = 1};
	size_t sent = 0;

	if (n_fds) {
		struct cmsghdr *h;

		m.msg_control = control;
		m.msg_controllen = CMSG_SPACE(sizeof(int) * n_fds);
		h = CMSG_FIRSTHDR(&m);
		h->cmsg_level = SOL_SOCKET;
		h->cmsg_type = SCM_RIGHTS;
		h->cmsg_len = CMSG_LEN(sizeof(int) * n_fds);
		memcpy(CMSG_DATA(h), fds, sizeof(int) * n_fds);
	}
	while (sent < n) {
		ssize_t part = sendmsg(fd, &m, MSG_NOSIGNAL);

		if (part < 0 && errno == EINTR)
			continue;
		if (part < 0)
			return -errno;
		sent += (size_t)part;
		m = (struct msghdr){.msg_iov = &v, .msg_iovlen = 1};
		v = (struct iovec){.iov_base = (void *)(text + sent), .iov_len = n - sent};
	}
	return 0;
}

static int read_answer(int fd, json_t **ret)
{
	struct buf in = BUF_INIT;
	json_t *answer = NULL;
	ssize_t n;

	do {
		uint8_t *room = buf_reserve(&in, 16384);

		if (!room)
			break;
		n = recv(fd, room, 16384, 0);
		in.len -= n > 0 ? 16384 - (size_t)n : 16384;
	} while (n > 0 || (n < 0 && errno == EINTR));
	if (in.len)
		answer = json_loadb((const char *)in.data, in.len, JSON_DISABLE_EOF_CHECK, NULL);
	buf_deinit(&in);
	if (!answer)
		return -EPIPE;
	*ret = answer;
	return 0;
}

int control_call(const char *socket_path, json_t *request, const int *fds, size_t n_fds, json_t **ret_answer)
{
	struct sockaddr_un address;
	cleanup_close int fd = -1;
	cleanup_free char *text = NULL;
	int r = socket_address(socket_path, &address);

	if (r < 0)
		return r;
	text = json_dumps(request, JSON_COMPACT);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (!text)
		return -ENOMEM;
	if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0)
		return -errno;
	r = send_request(fd, text, strlen(text), fds, n_fds);
	if (r == 0)
		r = send_request(fd, "\n", 1, NULL, 0);
	return r < 0 ? r : read_answer(fd, ret_answer);
}
