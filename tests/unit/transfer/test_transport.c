/* The child that is a transport: its stream, what it says, how it ends, and that nothing of it is left. */
#include "transfer/transport.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/error.h"
#include "tests/unit/where.h"

#define WAIT_MS 5000

struct place {
	char dir[128];
	char program[160];
};

static int set_up(void **state)
{
	struct place *p = calloc(1, sizeof(*p));

	snprintf(p->dir, sizeof(p->dir), "%.80s/transport.XXXXXX", where_disk());
	assert_non_null(mkdtemp(p->dir));
	*state = p;
	return 0;
}

static int tear_down(void **state)
{
	static const char *const names[] = {"program", "syncctl", "syncd-ssh", "ssh"};
	struct place *p = *state;
	char path[200];

	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		snprintf(path, sizeof(path), "%s/%s", p->dir, names[i]);
		unlink(path);
	}
	assert_int_equal(rmdir(p->dir), 0);
	free(p);
	/* every test leaves no child behind, neither running nor dead */
	assert_int_equal(waitpid(-1, NULL, WNOHANG), -1);
	assert_int_equal(errno, ECHILD);
	return 0;
}

static void write_script(struct place *p, const char *name, const char *text)
{
	int fd;

	snprintf(p->program, sizeof(p->program), "%s/%s", p->dir, name);
	fd = open(p->program, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0755);
	assert_true(fd >= 0);
	assert_true(dprintf(fd, "#!/bin/sh\n%s\n", text) > 0);
	close(fd);
}

static struct transport *start(struct place *p, const char *script)
{
	struct transport_options options = {.kind = TRANSPORT_LOCAL, .remote_command = p->program};
	struct transport *t = NULL;

	write_script(p, "program", script);
	assert_int_equal(transport_start(&t, &options), 0);
	return t;
}

static void wait_for(int fd, short events)
{
	struct pollfd p = {.fd = fd, .events = events};

	assert_int_equal(poll(&p, 1, WAIT_MS), 1);
}

/* Read a descriptor until `n` bytes are there or it ends. */
static size_t read_all(int fd, char *ret, size_t n)
{
	size_t at = 0;

	while (at < n) {
		ssize_t part;

		wait_for(fd, POLLIN);
		part = read(fd, ret + at, n - at);
		if (part < 0 && errno == EAGAIN)
			continue;
		assert_true(part >= 0);
		if (part == 0)
			break;
		at += (size_t)part;
	}
	return at;
}

/* Take all of stderr into the note, until it ends. */
static void note_all(struct transport *t)
{
	char bytes[512];
	size_t n;

	while ((n = read_all(transport_stderr(t), bytes, sizeof(bytes))))
		transport_note(t, bytes, n);
}

static int reap(struct transport *t)
{
	int status = -1, r;

	for (int i = 0; (r = transport_reap(t, &status)) == TRANSPORT_RUNNING && i < WAIT_MS; i++)
		usleep(1000);
	assert_int_equal(r, 0);
	return status;
}

/* --- the stream --- */

static void test_the_stream_works_both_ways(void **state)
{
	struct transport *t = start(*state, "echo \"$*\"; exec cat");
	int fd = transport_fd(t);
	char bytes[65536], back[65536];

	assert_true(fcntl(fd, F_GETFL) & O_NONBLOCK);
	assert_true(fcntl(fd, F_GETFD) & FD_CLOEXEC);
	assert_true(fcntl(transport_stderr(t), F_GETFL) & O_NONBLOCK);
	assert_true(fcntl(transport_stderr(t), F_GETFD) & FD_CLOEXEC);
	assert_int_equal(read_all(fd, back, 13), 13);
	assert_memory_equal(back, "serve --here\n", 13);
	for (size_t i = 0; i < sizeof(bytes); i++)
		bytes[i] = (char)(i * 7 + i / 256);
	for (size_t i = 0; i < sizeof(bytes); i += 4096) {
		assert_int_equal(write(fd, bytes + i, 4096), 4096);
		assert_int_equal(read_all(fd, back + i, 4096), 4096);
	}
	assert_memory_equal(bytes, back, sizeof(bytes));
	assert_int_equal(shutdown(fd, SHUT_WR), 0);
	assert_int_equal(read_all(fd, back, 1), 0);
	assert_int_equal(reap(t), 0);
	transport_free(t);
}

static void test_the_stream_is_taken(void **state)
{
	struct transport *t = start(*state, "exec cat");
	int fd = transport_take_fd(t);
	char back[3];

	assert_int_equal(transport_fd(t), -1);
	assert_int_equal(write(fd, "abc", 3), 3);
	assert_int_equal(read_all(fd, back, 3), 3);
	transport_free(t);
	assert_int_equal(read_all(fd, back, 1), 0); /* still open here; the child is gone */
	assert_int_equal(close(fd), 0);
}

/* Whatever else is open here is no business of the child's. */
static void test_no_other_descriptor_reaches_the_child(void **state)
{
	struct transport *first = start(*state, "exec cat");
	struct transport *t;
	char script[128], bytes[16];
	size_t n;

	snprintf(script, sizeof(script), "for n in %d %d; do test -e /proc/$$/fd/$n && echo $n; done; echo .", transport_fd(first),
		transport_stderr(first));
	t = start(*state, script);
	n = read_all(transport_fd(t), bytes, sizeof(bytes) - 1);
	bytes[n] = 0;
	assert_string_equal(bytes, ".\n");
	reap(t);
	transport_free(t);
	transport_free(first);
}

/* --- how it ends --- */

static void test_exit_codes(void **state)
{
	static const struct {
		const char *script;
		int code;
		const char *text;
	} cases[] = {
		{"exit 0", TRANSPORT_EXIT_OK, "syncctl serve to this machine ended with status 0"},
		{"exit 1", TRANSPORT_EXIT_COMMAND, "syncctl serve to this machine ended with status 1"},
		{"exit 127", TRANSPORT_EXIT_COMMAND, "syncctl serve to this machine ended with status 127"},
		/* the codes of syncd-ssh mean nothing in another program */
		{"exit 67", TRANSPORT_EXIT_COMMAND, "syncctl serve to this machine ended with status 67"},
		{"exit 255", TRANSPORT_EXIT_COMMAND, "syncctl serve to this machine ended with status 255"},
		{"kill -9 $$", TRANSPORT_EXIT_COMMAND, "syncctl serve to this machine was ended by signal 9"},
		{"echo words >&2; exit 3", TRANSPORT_EXIT_COMMAND, "words"},
		{"printf 'first\\nsyncctl: error: the last line\\r\\n\\n' >&2; exit 3", TRANSPORT_EXIT_COMMAND, "the last line"},
		{"printf '\\n \\r\\n' >&2; exit 3", TRANSPORT_EXIT_COMMAND, "syncctl serve to this machine ended with status 3"},
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct transport *t = start(*state, cases[i].script);
		int code = -1, status;

		note_all(t);
		status = reap(t);
		assert_string_equal(transport_explain(t, status, &code), cases[i].text);
		assert_int_equal(code, cases[i].code);
		/* asked twice, the same */
		assert_string_equal(transport_explain(t, status, &code), cases[i].text);
		assert_int_equal(transport_reap(t, &status), -ECHILD);
		transport_free(t);
	}
}

static struct transport *start_remote(struct place *p, enum transport_kind kind, const char *name, const char *script)
{
	struct transport_options options = {.kind = kind, .host = "far", .user = "me", .port = 2222, .program_dir = p->dir};
	struct transport *t = NULL;

	write_script(p, name, script);
	assert_int_equal(transport_start(&t, &options), 0);
	return t;
}

static void test_exit_codes_of_syncd_ssh(void **state)
{
	static const int cases[][2] = {
		{0, TRANSPORT_EXIT_OK}, {1, TRANSPORT_EXIT_COMMAND}, {64, TRANSPORT_EXIT_USAGE}, {65, TRANSPORT_EXIT_RESOLVE},
		{66, TRANSPORT_EXIT_CONNECT}, {67, TRANSPORT_EXIT_HOST_KEY}, {68, TRANSPORT_EXIT_AUTH},
		{69, TRANSPORT_EXIT_PROTOCOL}, {70, TRANSPORT_EXIT_COMMAND}, {71, TRANSPORT_EXIT_COMMAND},
		{255, TRANSPORT_EXIT_COMMAND},
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		char script[64];
		struct transport *t;
		int code = -1;

		snprintf(script, sizeof(script), "echo 'syncd-ssh: error: it says' >&2; exit %d", cases[i][0]);
		t = start_remote(*state, TRANSPORT_SSH2, "syncd-ssh", script);
		note_all(t);
		assert_string_equal(transport_explain(t, reap(t), &code), "it says");
		assert_int_equal(code, cases[i][1]);
		transport_free(t);
	}
}

static void test_exit_codes_of_ssh(void **state)
{
	static const struct {
		const char *says;
		int status, code;
	} cases[] = {
		{"Host key verification failed.", 255, TRANSPORT_EXIT_HOST_KEY},
		{"me@far: Permission denied (publickey).", 255, TRANSPORT_EXIT_AUTH},
		{"ssh: Could not resolve hostname far: Name or service not known", 255, TRANSPORT_EXIT_RESOLVE},
		{"ssh: connect to host far port 22: Connection refused", 255, TRANSPORT_EXIT_CONNECT},
		{"sh: syncctl: not found", 127, TRANSPORT_EXIT_COMMAND},
		{"Permission denied", 1, TRANSPORT_EXIT_COMMAND},
	};
	struct place *p = *state;
	cleanup_free char *path = strdup(getenv("PATH"));
	char with[4096];

	snprintf(with, sizeof(with), "%s:%s", p->dir, path);
	setenv("PATH", with, 1);
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		char script[160];
		struct transport *t;
		int code = -1;

		snprintf(script, sizeof(script), "echo '%s' >&2; exit %d", cases[i].says, cases[i].status);
		t = start_remote(p, TRANSPORT_SSH, "ssh", script);
		note_all(t);
		assert_string_equal(transport_explain(t, reap(t), &code), cases[i].says);
		assert_int_equal(code, cases[i].code);
		transport_free(t);
	}
	setenv("PATH", path, 1);
}

/* No shell sees them, and "--" stands before the host. */
static void test_arguments(void **state)
{
	struct transport *t = start_remote(*state, TRANSPORT_SSH2, "syncd-ssh", "printf '<%s>' \"$@\"");
	static const char expected[] = "<-p><2222><-t><20000><--><me@far><syncctl serve>";
	char bytes[200];
	size_t n = read_all(transport_fd(t), bytes, sizeof(bytes) - 1);

	bytes[n] = 0;
	assert_string_equal(bytes, expected);
	assert_int_equal(reap(t), 0);
	transport_free(t);
}

/* --- what it says --- */

static void test_a_hostile_child_cannot_write_on_the_terminal(void **state)
{
	struct transport *t = start(*state, "printf 'x\\033]0;title\\007\\233y' >&2; exit 1");
	const char *text;
	int code;

	note_all(t);
	text = transport_explain(t, reap(t), &code);
	for (const char *c = text; *c; c++)
		assert_in_range(*c, ' ', '~');
	assert_int_equal(text[0], 'x');
	assert_int_equal(text[strlen(text) - 1], 'y');
	transport_free(t);
}

static void test_a_talkative_child(void **state)
{
	struct transport *t = start(*state, "i=0; while [ $i -lt 500 ]; do echo \"line $i is this\" >&2; i=$((i + 1)); done; exit 1");
	int code;

	note_all(t);
	assert_string_equal(transport_explain(t, reap(t), &code), "line 499 is this");
	transport_free(t);
}

/* Sizes about what is kept, all at once and in parts, of bytes that take four times their room when shown. */
static void test_notes_of_all_sizes(void **state)
{
	static const size_t sizes[] = {0, 1, 2, 500, 511, 2040, 2046, 2047, 2048, 2049, 4096, 10000};
	static char bytes[10000];
	struct transport *t = start(*state, "exit 1");
	int code, status;

	note_all(t);
	status = reap(t);
	for (int fill = 0; fill < 2; fill++) {
		memset(bytes, fill ? '\033' : 'x', sizeof(bytes));
		for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
			const char *text;

			transport_note(t, "\n", 1);
			for (size_t part = 0; part < sizes[i]; part += 700)
				transport_note(t, bytes, sizes[i] - part < 700 ? sizes[i] - part : 700);
			transport_note(t, "\n", 1);
			transport_note(t, bytes, sizes[i]);
			text = transport_explain(t, status, &code);
			assert_int_equal(code, TRANSPORT_EXIT_COMMAND);
			assert_true(strlen(text) < 2560);
			if (sizes[i])
				assert_int_equal(text[0], fill ? '\\' : 'x');
			if (sizes[i] && sizes[i] <= 500)
				assert_int_equal(strlen(text), sizes[i] * (fill ? 4 : 1));
		}
	}
	transport_free(t);
}

static void test_a_zero_byte_hides_nothing(void **state)
{
	struct transport *t = start(*state, "printf 'before\\n\\000\\nafter\\n' >&2; exit 1");
	int code;

	note_all(t);
	assert_string_equal(transport_explain(t, reap(t), &code), "after");
	transport_free(t);
}

/* --- what cannot be started, and what will not end --- */

static void test_a_missing_program(void **state)
{
	struct place *p = *state;
	struct transport_options options = {.kind = TRANSPORT_LOCAL, .remote_command = "/nonexistent/syncctl"};
	struct transport *t = NULL;

	assert_int_equal(transport_start(&t, &options), -ENOENT);
	options = (struct transport_options){.kind = TRANSPORT_LOCAL, .program_dir = p->dir};
	assert_int_equal(transport_start(&t, &options), -ENOENT);
	options = (struct transport_options){.kind = TRANSPORT_SSH2, .host = "far", .program_dir = p->dir};
	assert_int_equal(transport_start(&t, &options), -ENOENT);
	options = (struct transport_options){.kind = TRANSPORT_LOCAL, .remote_command = p->dir};
	assert_int_equal(transport_start(&t, &options), -EACCES);
	assert_null(t);
	transport_free(NULL);
}

static void test_refused_options(void **state)
{
	static const struct {
		const char *user, *host, *known_hosts;
	} cases[] = {
		{NULL, NULL, NULL}, {NULL, "", NULL}, {NULL, "-oProxyCommand=touch owned", NULL}, {NULL, "-", NULL},
		{"me", "-far", NULL}, {"-oProxyCommand=x", "far", NULL}, {"-l", "far", NULL},
	};
	struct place *p = *state;
	struct transport *t = NULL;
	char longest[600];

	write_script(p, "syncd-ssh", "exit 0"); /* started, if anything were */
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct transport_options options = {.kind = TRANSPORT_SSH2, .user = cases[i].user, .host = cases[i].host,
			.program_dir = p->dir};

		assert_int_equal(transport_start(&t, &options), -EINVAL);
		options.kind = TRANSPORT_SSH;
		assert_int_equal(transport_start(&t, &options), -EINVAL);
	}
	memset(longest, 'h', sizeof(longest) - 1);
	longest[sizeof(longest) - 1] = 0;
	assert_int_equal(transport_start(&t, &(struct transport_options){.kind = TRANSPORT_SSH2, .host = longest}), -ENAMETOOLONG);
	/* ssh would take these apart */
	for (const char *bad = " \"\\%$"; *bad; bad++) {
		char file[] = "/tmp/?";

		file[5] = *bad;
		assert_int_equal(transport_start(&t, &(struct transport_options){.kind = TRANSPORT_SSH, .host = "far", .known_hosts = file}),
			-EINVAL);
	}
	assert_null(t);
}

/* Who serves a folder sees that its stream ended, and may close its index before it ends itself. */
static void test_a_child_that_ends_in_order(void **state)
{
	struct place *p = *state;
	struct transport *t = start(p, "echo .; cat; sleep 0.1; echo closed >\"$(dirname \"$0\")/closed\"");
	char path[sizeof(p->dir) + sizeof("/closed")], dot[2];

	assert_int_equal(read_all(transport_fd(t), dot, 2), 2);
	transport_free(t);
	snprintf(path, sizeof(path), "%s/closed", p->dir);
	assert_int_equal(access(path, F_OK), 0);
	assert_int_equal(unlink(path), 0);
}

static void test_a_running_child_is_ended(void **state)
{
	struct transport *t = start(*state, "exec sleep 60");
	pid_t pid = transport_pid(t);
	int status = -7;

	assert_int_equal(transport_reap(t, &status), TRANSPORT_RUNNING);
	assert_int_equal(status, -7);
	assert_int_equal(kill(pid, 0), 0);
	transport_free(t);
	assert_int_equal(kill(pid, 0), -1);
}

/* One that does not listen to SIGTERM does not hold its parent up for ever. */
static void test_a_child_that_will_not_end(void **state)
{
	struct transport *t = start(*state, "trap '' TERM; echo .; exec sleep 60");
	pid_t pid = transport_pid(t);
	char dot[2];

	assert_int_equal(read_all(transport_fd(t), dot, 2), 2);
	transport_free(t);
	assert_int_equal(kill(pid, 0), -1);
}

#define in_a_place(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		in_a_place(test_the_stream_works_both_ways),
		in_a_place(test_the_stream_is_taken),
		in_a_place(test_no_other_descriptor_reaches_the_child),
		in_a_place(test_exit_codes),
		in_a_place(test_exit_codes_of_syncd_ssh),
		in_a_place(test_exit_codes_of_ssh),
		in_a_place(test_arguments),
		in_a_place(test_a_hostile_child_cannot_write_on_the_terminal),
		in_a_place(test_a_talkative_child),
		in_a_place(test_notes_of_all_sizes),
		in_a_place(test_a_zero_byte_hides_nothing),
		in_a_place(test_a_missing_program),
		in_a_place(test_refused_options),
		in_a_place(test_a_child_that_ends_in_order),
		in_a_place(test_a_running_child_is_ended),
		in_a_place(test_a_child_that_will_not_end),
	};

	signal(SIGPIPE, SIG_IGN);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
