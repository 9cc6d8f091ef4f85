/*
 * tests/fuzz/fuzz_control.c — any bytes to the daemon's socket, and then nothing more: at most one request is handled, all that
 * answers is one line, and the connection closes.
 *
 * Input: u8 into how many pieces and with how many descriptors, then the bytes.
 */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "syncd/control.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

struct place {
	char dir[64], socket[80];
	uv_loop_t loop;
	struct control_server *server;
	unsigned requests;
};

static void handle(struct control_connection *c, struct control_request *request, void *data)
{
	struct place *p = data;

	if (!json_is_object(request->json) || request->n_fds > CONTROL_FDS_MAX)
		abort();
	p->requests++;
	control_answer(c, json_pack("{s:O}", "echo", request->json));
}

static void send_piece(int fd, const uint8_t *p, size_t n, size_t n_fds)
{
	char control[CMSG_SPACE(4 * sizeof(int))] = {0};
	struct iovec v = {.iov_base = (void *)p, .iov_len = n};
	struct msghdr m = {.msg_iov = &v, .msg_iovlen = 1};

	if (n_fds) {
		struct cmsghdr *h;

		m.msg_control = control;
		m.msg_controllen = CMSG_SPACE(n_fds * sizeof(int));
		h = CMSG_FIRSTHDR(&m);
		*h = (struct cmsghdr){CMSG_LEN(n_fds * sizeof(int)), SOL_SOCKET, SCM_RIGHTS};
		for (size_t i = 0; i < n_fds; i++)
			memcpy(CMSG_DATA(h) + i * sizeof(int), &(int){STDERR_FILENO}, sizeof(int));
	}
	if (n)
		(void)sendmsg(fd, &m, MSG_NOSIGNAL | MSG_DONTWAIT); /* it may have been closed */
}

/* What the server says until it closes the connection. */
static size_t listen_to(struct place *p, int fd, char *ret, size_t max)
{
	size_t n = 0;

	for (int i = 0; i < 10000; i++) {
		ssize_t got = recv(fd, ret + n, max - n, MSG_DONTWAIT);

		if (got == 0 || (got < 0 && errno != EAGAIN))
			return n;
		n += got > 0 ? (size_t)got : 0;
		uv_run(&p->loop, UV_RUN_NOWAIT);
	}
	abort();
}

static void converse(struct place *p, const uint8_t *data, size_t n, size_t pieces, size_t n_fds)
{
	static char answer[1 << 20];
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	size_t said;

	snprintf(address.sun_path, sizeof(address.sun_path), "%s", p->socket);
	if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0)
		abort();
	p->requests = 0;
	for (size_t i = 0; i < pieces; i++) {
		send_piece(fd, data + n * i / pieces, n * (i + 1) / pieces - n * i / pieces, n_fds);
		for (int k = 0; k < 3; k++)
			uv_run(&p->loop, UV_RUN_NOWAIT);
	}
	shutdown(fd, SHUT_WR);
	said = listen_to(p, fd, answer, sizeof(answer));
	if (p->requests > 1 || (p->requests && !said))
		abort();
	if (said && (answer[said - 1] != '\n' || memchr(answer, '\n', said) != answer + said - 1))
		abort();
	close(fd);
	for (int k = 0; k < 3; k++)
		uv_run(&p->loop, UV_RUN_NOWAIT);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	struct place p = {.dir = "/tmp/fuzz-control-XXXXXX"};

	if (n < 1 || n > CONTROL_LINE_BYTES_MAX / 4)
		return 0;
	if (!mkdtemp(p.dir) || uv_loop_init(&p.loop) < 0)
		abort();
	snprintf(p.socket, sizeof(p.socket), "%s/s", p.dir);
	if (control_server_new(&p.server, &p.loop, p.socket, handle, &p) < 0)
		abort();
	converse(&p, data + 1, n - 1, 1 + data[0] % 4, data[0] / 4 % 5);
	control_server_close(p.server);
	uv_run(&p.loop, UV_RUN_DEFAULT);
	if (uv_loop_close(&p.loop) < 0)
		abort();
	rmdir(p.dir);
	return 0;
}
