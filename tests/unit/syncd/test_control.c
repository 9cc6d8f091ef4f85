/* The daemon's socket: a server on a loop in one thread, clients in another, well-behaved and not. */
#include "syncd/control.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <semaphore.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/error.h"
#include "syncd/exit_codes.h"
#include "tests/unit/where.h"

struct place {
	char dir[80], socket[100];
	uv_loop_t loop;
	uv_async_t stop, finish;
	struct control_server *server;
	pthread_t thread;
	struct control_connection *waiting; /* asked "wait": answered by `finish` */
	sem_t gone, asked;
	atomic_int requests;
};

static void on_gone(void *data)
{
	struct place *p = data;

	sem_post(&p->gone);
}

/* A request names what is to be done with it. */
static void handle(struct control_connection *c, struct control_request *request, void *data)
{
	struct place *p = data;
	const char *todo = json_string_value(json_object_get(request->json, "todo"));

	p->requests++;
	if (!todo) {
		control_answer(c, control_error(EXIT_USAGE, "no %s", "todo"));
	} else if (strcmp(todo, "who") == 0) {
		control_answer(c, json_pack("{s:i, s:i, s:i}", "uid", (int)request->uid, "gid", (int)request->gid, "pid",
			(int)request->pid));
	} else if (strcmp(todo, "fds") == 0) {
		int n = (int)request->n_fds, cloexec = 0;

		for (size_t i = 0; i < request->n_fds; i++) {
			cloexec += fcntl(request->fds[i], F_GETFD) & FD_CLOEXEC;
			if (write(request->fds[i], i ? "second" : "first", i ? 6 : 5) < 0)
				n = -1;
		}
		control_answer(c, json_pack("{s:i, s:i}", "n", n, "cloexec", cloexec));
	} else if (strcmp(todo, "wait") == 0) {
		p->waiting = c;
		control_on_gone(c, on_gone, p);
		sem_post(&p->asked);
	} else {
		control_answer(c, json_pack("{s:O}", "echo", json_object_get(request->json, "text")));
	}
}

static void on_stop(uv_async_t *async)
{
	struct place *p = async->data;

	control_server_close(p->server);
	uv_close((uv_handle_t *)&p->stop, NULL);
	uv_close((uv_handle_t *)&p->finish, NULL);
}

static void on_finish(uv_async_t *async)
{
	struct place *p = async->data;

	control_answer(p->waiting, json_pack("{s:b}", "waited", 1));
	p->waiting = NULL;
}

static void *run_loop(void *data)
{
	struct place *p = data;

	uv_run(&p->loop, UV_RUN_DEFAULT);
	return NULL;
}

static void start(struct place *p)
{
	assert_int_equal(control_server_new(&p->server, &p->loop, p->socket, handle, p), 0);
	assert_int_equal(pthread_create(&p->thread, NULL, run_loop, p), 0);
}

static int prepare(void **state)
{
	struct place *p = calloc(1, sizeof(*p));

	snprintf(p->dir, sizeof(p->dir), "%.60s/control.XXXXXX", where_disk());
	assert_non_null(mkdtemp(p->dir));
	snprintf(p->socket, sizeof(p->socket), "%s/socket", p->dir);
	sem_init(&p->gone, 0, 0);
	sem_init(&p->asked, 0, 0);
	assert_int_equal(uv_loop_init(&p->loop), 0);
	uv_async_init(&p->loop, &p->stop, on_stop);
	uv_async_init(&p->loop, &p->finish, on_finish);
	p->stop.data = p->finish.data = p;
	*state = p;
	return 0;
}

static int set_up(void **state)
{
	prepare(state);
	start(*state);
	return 0;
}

static void stop(struct place *p)
{
	uv_async_send(&p->stop);
	pthread_join(p->thread, NULL);
	assert_int_equal(uv_loop_close(&p->loop), 0);
	assert_int_equal(access(p->socket, F_OK), -1); /* removed */
}

static int tear_down(void **state)
{
	struct place *p = *state;

	stop(p);
	assert_int_equal(rmdir(p->dir), 0);
	sem_destroy(&p->gone);
	sem_destroy(&p->asked);
	free(p);
	return 0;
}

static void wait_for(sem_t *s)
{
	struct timespec until;

	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_sec += 5;
	assert_int_equal(sem_timedwait(s, &until), 0);
}

static json_t *call(struct place *p, json_t *request, const int *fds, size_t n_fds)
{
	json_t *answer = NULL;

	assert_int_equal(control_call(p->socket, request, fds, n_fds, &answer), 0);
	assert_true(json_is_object(answer));
	json_decref(request);
	return answer;
}

static json_int_t number(const json_t *o, const char *key)
{
	assert_true(json_is_integer(json_object_get(o, key)));
	return json_integer_value(json_object_get(o, key));
}

static int raw_client(struct place *p)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	memcpy(a.sun_path, p->socket, sizeof(p->socket));
	assert_int_equal(connect(fd, (struct sockaddr *)&a, sizeof(a)), 0);
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &(struct timeval){.tv_sec = 5}, sizeof(struct timeval));
	return fd;
}

/* Until the server closes; "" if it said nothing. */
static void raw_answer(int fd, char *ret, size_t n)
{
	size_t at = 0;
	ssize_t part = 0;

	while (at + 1 < n && (part = recv(fd, ret + at, n - 1 - at, 0)) > 0)
		at += (size_t)part;
	assert_true(part == 0 || errno == ECONNRESET);
	ret[at] = 0;
	close(fd);
}

static void assert_serves(struct place *p)
{
	json_t *answer = call(p, json_pack("{s:s, s:s}", "todo", "echo", "text", "hello"), NULL, 0);

	assert_string_equal(json_string_value(json_object_get(answer, "echo")), "hello");
	json_decref(answer);
}

static void test_an_answer(void **state)
{
	struct place *p = *state;
	json_t *answer;
	struct stat st;

	for (int i = 0; i < 200; i++)
		assert_serves(p);
	answer = call(p, json_pack("{s:s}", "todo", "who"), NULL, 0);
	assert_int_equal(number(answer, "uid"), getuid());
	assert_int_equal(number(answer, "gid"), getgid());
	assert_int_equal(number(answer, "pid"), getpid());
	json_decref(answer);
	assert_int_equal(stat(p->socket, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0666); /* each request is judged by who asks */
}

static void test_an_error(void **state)
{
	json_t *answer = call(*state, json_object(), NULL, 0);

	assert_string_equal(json_string_value(json_object_get(answer, "error")), "no todo");
	assert_int_equal(number(answer, "code"), EXIT_USAGE);
	json_decref(answer);
}

/* Larger than any socket's buffer: written and read in parts. */
static void test_a_large_request_and_answer(void **state)
{
	struct place *p = *state;
	static char text[CONTROL_LINE_BYTES_MAX - 64];
	json_t *answer;

	memset(text, 't', sizeof(text) - 1);
	answer = call(p, json_pack("{s:s, s:s}", "todo", "echo", "text", text), NULL, 0);
	assert_string_equal(json_string_value(json_object_get(answer, "echo")), text);
	json_decref(answer);
}

static void test_descriptors(void **state)
{
	struct place *p = *state;

	for (size_t n = 0; n <= CONTROL_FDS_MAX; n++) {
		int first[2], second[2], fds[2];
		char bytes[16];
		json_t *answer;

		assert_int_equal(pipe2(first, O_CLOEXEC | O_NONBLOCK), 0);
		assert_int_equal(pipe2(second, O_CLOEXEC | O_NONBLOCK), 0);
		fds[0] = first[1];
		fds[1] = second[1];
		answer = call(p, json_pack("{s:s}", "todo", "fds"), fds, n);
		assert_int_equal(number(answer, "n"), n);
		assert_int_equal(number(answer, "cloexec"), n);
		json_decref(answer);
		assert_int_equal(read(first[0], bytes, sizeof(bytes)), n > 0 ? 5 : -1);
		assert_int_equal(read(second[0], bytes, sizeof(bytes)), n > 1 ? 6 : -1);
		close(first[1]);
		close(second[1]);
		/* The handler left them: the server closes its own, soon after it has closed the connection. */
		for (int i = 0; i < 1000 && read(first[0], bytes, 1) != 0; i++)
			usleep(1000);
		assert_int_equal(read(first[0], bytes, 1), 0);
		close(first[0]);
		close(second[0]);
	}
}

static void test_no_json(void **state)
{
	static const char *const lines[] = {"\n", "garbage\n", "[1, 2]\n", "\"text\"\n", "{\"todo\": \n", "{} {}\n", "\x01\xff\xfe\n",
		"GET / HTTP/1.1\r\n\r\n"};
	struct place *p = *state;

	for (size_t i = 0; i < ARRAY_SIZE(lines); i++) {
		int fd = raw_client(p);
		char text[256];

		assert_int_equal(send(fd, lines[i], strlen(lines[i]), MSG_NOSIGNAL), strlen(lines[i]));
		raw_answer(fd, text, sizeof(text));
		assert_string_equal(text, "{\"error\":\"the request is not a JSON object\",\"code\":2}\n");
	}
	assert_int_equal(p->requests, 0);
	assert_serves(p);
}

/* Arrays in arrays in arrays: the parser's own limit, and not our stack, ends that. */
static void test_deep_json(void **state)
{
	static char line[100000];
	struct place *p = *state;
	int fd = raw_client(p);
	char text[256];

	memset(line, '[', sizeof(line));
	line[sizeof(line) - 1] = '\n';
	assert_int_equal(send(fd, line, sizeof(line), MSG_NOSIGNAL), sizeof(line));
	raw_answer(fd, text, sizeof(text));
	assert_non_null(strstr(text, "not a JSON object"));
	assert_serves(p);
}

static void test_an_oversized_line(void **state)
{
	static char bytes[4096];
	struct place *p = *state;
	int fd = raw_client(p);
	size_t sent = 0;
	char text[16];

	memset(bytes, 'x', sizeof(bytes));
	while (sent < 16 * CONTROL_LINE_BYTES_MAX && send(fd, bytes, sizeof(bytes), MSG_NOSIGNAL) > 0)
		sent += sizeof(bytes);
	assert_true(sent >= CONTROL_LINE_BYTES_MAX);
	assert_true(sent < 16 * CONTROL_LINE_BYTES_MAX); /* the server hung up */
	raw_answer(fd, text, sizeof(text));
	assert_string_equal(text, "");
	assert_int_equal(p->requests, 0);
	assert_serves(p);
}

static void test_a_line_in_pieces_and_more_behind_it(void **state)
{
	static const char line[] = "{\"todo\": \"echo\", \"text\": \"pieces\"}\n{\"todo\": \"echo\", \"text\": \"second\"}\n";
	struct place *p = *state;
	int fd = raw_client(p);
	char text[256];

	for (size_t i = 0; i < 20; i++) {
		assert_int_equal(send(fd, line + i, 1, MSG_NOSIGNAL), 1);
		usleep(500);
	}
	assert_int_equal(send(fd, line + 20, strlen(line) - 20, MSG_NOSIGNAL), strlen(line) - 20);
	raw_answer(fd, text, sizeof(text));
	assert_string_equal(text, "{\"echo\":\"pieces\"}\n");
	assert_int_equal(p->requests, 1);
}

static void test_a_later_answer(void **state)
{
	struct place *p = *state;
	int fd = raw_client(p);
	char text[64];

	assert_true(send(fd, "{\"todo\": \"wait\"}\n", 17, MSG_NOSIGNAL) == 17);
	wait_for(&p->asked);
	assert_serves(p); /* others meanwhile */
	uv_async_send(&p->finish);
	raw_answer(fd, text, sizeof(text));
	assert_string_equal(text, "{\"waited\":true}\n");
	assert_int_equal(sem_trywait(&p->gone), -1);
}

static void test_the_client_goes_before_the_answer(void **state)
{
	struct place *p = *state;

	for (int i = 0; i < 3; i++) {
		int fd = raw_client(p);

		assert_true(send(fd, "{\"todo\": \"wait\"}\n", 17, MSG_NOSIGNAL) == 17);
		wait_for(&p->asked);
		close(fd);
		wait_for(&p->gone);
		assert_serves(p);
	}
	/* and before it asked */
	close(raw_client(p));
	assert_serves(p);
}

/* The server is closed while one waits: the client learns that there is no answer. */
static void test_the_server_closes_first(void **state)
{
	struct place *p = *state;
	int waits = raw_client(p), idle = raw_client(p);
	char text[16];

	assert_true(send(waits, "{\"todo\": \"wait\"}\n", 17, MSG_NOSIGNAL) == 17);
	wait_for(&p->asked);
	uv_async_send(&p->stop);
	raw_answer(waits, text, sizeof(text));
	assert_string_equal(text, "");
	raw_answer(idle, text, sizeof(text));
}

/* A user who connects again and again and asks nothing is sent away, and keeps nobody else out. */
static int64_t cpu_ms(pthread_t thread)
{
	clockid_t clock;
	struct timespec t;

	assert_int_equal(pthread_getcpuclockid(thread, &clock), 0);
	assert_int_equal(clock_gettime(clock, &t), 0);
	return t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

/* A connection that no descriptor is left for waits in the backlog, and does not keep the loop busy. */
static void test_no_descriptor_is_left(void **state)
{
	struct place *p = *state;
	struct rlimit was, none;
	int client, fds[64];
	size_t n = 0;
	int64_t before;

	assert_serves(p);
	assert_int_equal(getrlimit(RLIMIT_NOFILE, &was), 0);
	none = was;
	none.rlim_cur = 60;
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
	while (n < ARRAY_SIZE(fds) && (fds[n] = dup(0)) >= 0)
		n++;
	assert_in_range(n, 1, ARRAY_SIZE(fds) - 1);
	close(fds[--n]);
	before = cpu_ms(p->thread);
	client = raw_client(p); /* takes the last one */
	usleep(500 * 1000);
	assert_true(cpu_ms(p->thread) - before < 100);
	while (n)
		close(fds[--n]);
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &was), 0);
	assert_serves(p);
	close(client);
}

static void test_silent_connections_are_limited(void **state)
{
	struct place *p = *state;
	int fds[40];
	size_t closed = 0;

	if (geteuid() != 0)
		skip();
	assert_int_equal(chmod(p->dir, 0711), 0);
	/* the call itself: of this thread only, not of the server's */
	assert_int_equal(syscall(SYS_setresuid, -1, 65534, -1), 0);
	for (size_t i = 0; i < ARRAY_SIZE(fds); i++)
		fds[i] = raw_client(p);
	assert_int_equal(syscall(SYS_setresuid, -1, 0, -1), 0);
	assert_serves(p);
	for (int tries = 0; tries < 1000 && closed < 30; tries++) {
		char byte;

		closed = 0;
		for (size_t i = 0; i < ARRAY_SIZE(fds); i++)
			closed += recv(fds[i], &byte, 1, MSG_DONTWAIT) == 0;
		usleep(1000);
	}
	assert_in_range(closed, 30, ARRAY_SIZE(fds) - 1);
	for (size_t i = 0; i < ARRAY_SIZE(fds); i++)
		close(fds[i]);
}

/* --- the socket's file --- */

static void test_a_stale_socket_is_replaced(void **state)
{
	struct place *p = *state;
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	json_t *answer = NULL, *request = json_object();
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	assert_int_equal(control_call(p->socket, request, NULL, 0, &answer), -ENOENT);
	memcpy(a.sun_path, p->socket, sizeof(p->socket));
	assert_int_equal(bind(fd, (struct sockaddr *)&a, sizeof(a)), 0);
	close(fd); /* as kill -9 leaves it */
	assert_int_equal(access(p->socket, F_OK), 0);
	assert_int_equal(control_call(p->socket, request, NULL, 0, &answer), -ECONNREFUSED);
	assert_null(answer);
	json_decref(request);
	start(p);
	assert_serves(p);
}

/* The name was given by mistake: what is there is not ours to remove. */
static void test_a_file_that_is_no_socket_stays(void **state)
{
	struct place *p = *state;
	int fd = open(p->socket, O_WRONLY | O_CREAT, 0600);
	struct control_server *s = NULL;

	close(fd);
	assert_int_equal(control_server_new(&s, &p->loop, p->socket, handle, p), -EADDRINUSE);
	assert_null(s);
	assert_int_equal(unlink(p->socket), 0);
	start(p);
}

static void test_a_second_daemon_is_refused(void **state)
{
	struct place *p = *state;
	struct control_server *s = NULL;
	uv_loop_t loop;

	assert_int_equal(uv_loop_init(&loop), 0);
	assert_int_equal(control_server_new(&s, &loop, p->socket, handle, p), -EADDRINUSE);
	assert_null(s);
	assert_int_equal(uv_loop_close(&loop), 0);
	assert_serves(p);
}

static void test_long_names(void **state)
{
	struct place *p = *state;
	char path[200];
	struct control_server *s = NULL;
	json_t *answer = NULL, *request = json_object();

	memset(path, 'p', sizeof(path) - 1);
	path[sizeof(path) - 1] = 0;
	assert_int_equal(control_server_new(&s, &p->loop, path, handle, p), -ENAMETOOLONG);
	assert_int_equal(control_call(path, request, NULL, 0, &answer), -ENAMETOOLONG);
	json_decref(request);
	start(p);
}

static void test_default_socket(void **state)
{
	char path[128];

	(void)state;
	setenv("SYNCD_SOCKET", "/some/where", 1);
	control_default_socket(path, sizeof(path));
	assert_string_equal(path, "/some/where");
	control_default_socket(path, 5);
	assert_string_equal(path, "/som");
	setenv("SYNCD_SOCKET", "", 1);
	setenv("XDG_RUNTIME_DIR", "/run/user/7", 1);
	control_default_socket(path, sizeof(path));
	assert_string_equal(path, geteuid() ? "/run/user/7/syncd.sock" : "/run/syncd.sock");
}

#define served(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)
#define prepared(test) cmocka_unit_test_setup_teardown(test, prepare, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		served(test_an_answer),
		served(test_an_error),
		served(test_a_large_request_and_answer),
		served(test_descriptors),
		served(test_no_json),
		served(test_deep_json),
		served(test_an_oversized_line),
		served(test_a_line_in_pieces_and_more_behind_it),
		served(test_a_later_answer),
		served(test_the_client_goes_before_the_answer),
		served(test_the_server_closes_first),
		served(test_no_descriptor_is_left),
		served(test_silent_connections_are_limited),
		prepared(test_a_stale_socket_is_replaced),
		prepared(test_a_file_that_is_no_socket_stays),
		served(test_a_second_daemon_is_refused),
		prepared(test_long_names),
		cmocka_unit_test(test_default_socket),
	};

	signal(SIGPIPE, SIG_IGN);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
