/*
 * transfer/transport.c — start the child that is a transport, and say what became of it.
 *
 * The child is exec'ed without a shell. For the system's ssh the far side's login shell does see the command; it is therefore a
 * fixed string without anything that a peer or a path could put there (what is to be opened travels in the protocol).
 */
#include "transfer/transport.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/error.h"
#include "base/log.h"

#define NOTE_BYTES 2048
#define ARGUMENTS_MAX 48
#define TERM_MS 1000 /* between the end of its stream, SIGTERM and SIGKILL */
#define TERM_STEP_MS 2

struct transport {
	enum transport_kind kind;
	pid_t pid;
	bool reaped;
	int fd;
	int err;
	char host[256];
	char note[NOTE_BYTES + 1]; /* the last bytes of stderr */
	size_t note_n;
	char text[NOTE_BYTES + 512];
};

struct arguments {
	const char *v[ARGUMENTS_MAX + 1];
	size_t n;
	char port[8], timeout[48], destination[512];
	char known_hosts[PATH_MAX + 32], command[PATH_MAX + 16];
	char program[PATH_MAX];
};

static void add(struct arguments *a, const char *word)
{
	if (a->n < ARGUMENTS_MAX)
		a->v[a->n++] = word;
}

/* Our own program: in program_dir, else beside this one, else by $PATH. */
static int own_program(const struct transport_options *o, const char *name, char *ret)
{
	char self[PATH_MAX];
	ssize_t n;

	if (o->program_dir) {
		if (snprintf(ret, PATH_MAX, "%s/%s", o->program_dir, name) >= PATH_MAX)
			return -ENAMETOOLONG;
		return 0;
	}
	n = readlink("/proc/self/exe", self, sizeof(self) - 1);
	if (n > 0) {
		char *slash;

		self[n] = 0;
		slash = strrchr(self, '/');
		if (slash)
			*slash = 0;
		if (snprintf(ret, PATH_MAX, "%s/%s", self, name) < PATH_MAX && access(ret, X_OK) == 0)
			return 0;
	}
	snprintf(ret, PATH_MAX, "%s", name);
	return 0;
}

static int ssh2_arguments(const struct transport_options *o, struct arguments *a)
{
	int r = own_program(o, "syncd-ssh", a->program);

	if (r < 0)
		return r;
	add(a, a->program);
	if (o->port) {
		snprintf(a->port, sizeof(a->port), "%u", o->port);
		add(a, "-p");
		add(a, a->port);
	}
	if (o->identity) {
		add(a, "-i");
		add(a, o->identity);
	}
	if (o->known_hosts) {
		add(a, "-k");
		add(a, o->known_hosts);
	}
	snprintf(a->timeout, sizeof(a->timeout), "%lld", (long long)(o->connect_timeout_ms ? o->connect_timeout_ms : 20000));
	add(a, "-t");
	add(a, a->timeout);
	add(a, "--");
	add(a, a->destination);
	add(a, a->command);
	return 0;
}

static int ssh_arguments(const struct transport_options *o, struct arguments *a)
{
	add(a, "ssh");
	add(a, "-T");
	add(a, "-oBatchMode=yes");
	add(a, "-oClearAllForwardings=yes");
	add(a, "-oServerAliveInterval=15");
	add(a, "-oServerAliveCountMax=4");
	snprintf(a->timeout, sizeof(a->timeout), "-oConnectTimeout=%lld",
		(long long)((o->connect_timeout_ms ? o->connect_timeout_ms : 20000) + 999) / 1000);
	add(a, a->timeout);
	if (o->port) {
		snprintf(a->port, sizeof(a->port), "%u", o->port);
		add(a, "-p");
		add(a, a->port);
	}
	if (o->identity) {
		add(a, "-oIdentitiesOnly=yes");
		add(a, "-i");
		add(a, o->identity);
	}
	if (o->known_hosts) {
		if (strpbrk(o->known_hosts, " \"\\%$"))
			return -EINVAL;
		snprintf(a->known_hosts, sizeof(a->known_hosts), "-oUserKnownHostsFile=%s", o->known_hosts);
		add(a, a->known_hosts);
	}
	add(a, "--");
	add(a, a->destination);
	add(a, a->command);
	return 0;
}

static int local_arguments(const struct transport_options *o, struct arguments *a)
{
	int r;

	if (o->remote_command)
		snprintf(a->program, sizeof(a->program), "%s", o->remote_command);
	else if ((r = own_program(o, "syncctl", a->program)) < 0)
		return r;
	add(a, a->program);
	add(a, "serve");
	add(a, "--here");
	return 0;
}

static int build_arguments(const struct transport_options *o, struct arguments *a)
{
	if (o->kind == TRANSPORT_LOCAL)
		return local_arguments(o, a);
	if (!o->host || !*o->host || *o->host == '-' || (o->user && *o->user == '-'))
		return -EINVAL;
	if (snprintf(a->destination, sizeof(a->destination), "%s%s%s", o->user ? o->user : "", o->user ? "@" : "", o->host) >=
			(int)sizeof(a->destination))
		return -ENAMETOOLONG;
	if (snprintf(a->command, sizeof(a->command), "%s serve", o->remote_command ? o->remote_command : "syncctl") >=
			(int)sizeof(a->command))
		return -ENAMETOOLONG;
	return o->kind == TRANSPORT_SSH2 ? ssh2_arguments(o, a) : ssh_arguments(o, a);
}

/* In the child: never returns. `report` is close-on-exec and carries errno if exec fails. */
__attribute__((noreturn)) static void run_child(const struct arguments *a, int stream, int err, int report)
{
	sigset_t none;
	int saved;

	prctl(PR_SET_PDEATHSIG, SIGTERM);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	signal(SIGPIPE, SIG_DFL);
	if (dup2(stream, 0) >= 0 && dup2(stream, 1) >= 0 && dup2(err, 2) >= 0) {
		/* A session of its own: a terminal's Ctrl-C ends us, and we end it in order. */
		setsid();
		execvp(a->v[0], (char *const *)a->v);
	}
	saved = errno;
	if (write(report, &saved, sizeof(saved)) < 0)
		_exit(126);
	_exit(127);
}

static int start_child(struct transport *t, const struct arguments *a)
{
	int stream[2] = {-1, -1}, err[2] = {-1, -1}, report[2] = {-1, -1}, failure = 0;
	ssize_t n;
	int r = 0;

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, stream) < 0 || pipe2(err, O_CLOEXEC) < 0 ||
			pipe2(report, O_CLOEXEC) < 0)
		r = -errno;
	if (r == 0) {
		t->pid = fork();
		if (t->pid < 0)
			r = -errno;
		else if (t->pid == 0)
			run_child(a, stream[1], err[1], report[1]);
	}
	close_keep(stream[1]);
	close_keep(err[1]);
	close_keep(report[1]);
	if (r == 0) {
		t->fd = steal_fd(stream[0]);
		t->err = steal_fd(err[0]);
		fcntl(t->fd, F_SETFL, O_NONBLOCK);
		fcntl(t->err, F_SETFL, O_NONBLOCK);
		do
			n = read(report[0], &failure, sizeof(failure));
		while (n < 0 && errno == EINTR);
		if (n == sizeof(failure))
			r = -failure;
	}
	close_keep(stream[0]);
	close_keep(err[0]);
	close_keep(report[0]);
	return r;
}

int transport_start(struct transport **ret, const struct transport_options *options)
{
	struct arguments a = {0};
	struct transport *t;
	int r = build_arguments(options, &a);

	if (r < 0)
		return r;
	t = calloc(1, sizeof(*t));
	if (!t)
		return -ENOMEM;
	t->kind = options->kind;
	t->fd = t->err = -1;
	snprintf(t->host, sizeof(t->host), "%s", options->host ? options->host : "this machine");
	r = start_child(t, &a);
	if (r < 0) {
		transport_free(t);
		return r;
	}
	*ret = t;
	return 0;
}

int transport_fd(const struct transport *t)
{
	return t->fd;
}

int transport_take_fd(struct transport *t)
{
	return steal_fd(t->fd);
}

int transport_stderr(const struct transport *t)
{
	return t->err;
}

pid_t transport_pid(const struct transport *t)
{
	return t->pid;
}

void transport_note(struct transport *t, const char *bytes, size_t n)
{
	if (n > NOTE_BYTES) {
		bytes += n - NOTE_BYTES;
		n = NOTE_BYTES;
	}
	if (t->note_n + n > NOTE_BYTES) {
		size_t drop = t->note_n + n - NOTE_BYTES;

		memmove(t->note, t->note + drop, t->note_n - drop);
		t->note_n -= drop;
	}
	for (size_t i = 0; i < n; i++) /* a zero byte would end the text */
		t->note[t->note_n++] = bytes[i] ? bytes[i] : '?';
	t->note[t->note_n] = 0;
}

/* The last line of the note that says something. */
static const char *last_line(struct transport *t)
{
	char *end = t->note + t->note_n, *start;

	while (end > t->note && (end[-1] == '\n' || end[-1] == '\r' || end[-1] == ' '))
		*--end = 0;
	t->note_n = (size_t)(end - t->note);
	start = strrchr(t->note, '\n');
	start = start ? start + 1 : t->note;
	if (strncmp(start, "syncd-ssh: ", 11) == 0)
		start += 11;
	else if (strncmp(start, "syncctl: ", 9) == 0)
		start += 9;
	if (strncmp(start, "error: ", 7) == 0)
		start += 7;
	return start;
}

/* ssh says 255 for all of its own failures: its words tell which. */
static int code_of_ssh(const char *note)
{
	if (strstr(note, "Host key verification failed") || strstr(note, "REMOTE HOST IDENTIFICATION HAS CHANGED"))
		return TRANSPORT_EXIT_HOST_KEY;
	if (strstr(note, "Permission denied"))
		return TRANSPORT_EXIT_AUTH;
	if (strstr(note, "Could not resolve"))
		return TRANSPORT_EXIT_RESOLVE;
	return TRANSPORT_EXIT_CONNECT;
}

static int code_of(const struct transport *t, int wait_status)
{
	int status = WIFEXITED(wait_status) ? WEXITSTATUS(wait_status) : -1;

	if (status == 0)
		return TRANSPORT_EXIT_OK;
	if (t->kind == TRANSPORT_SSH2 && status >= TRANSPORT_EXIT_USAGE && status <= TRANSPORT_EXIT_COMMAND)
		return status;
	if (t->kind == TRANSPORT_SSH && status == 255)
		return code_of_ssh(t->note);
	return TRANSPORT_EXIT_COMMAND;
}

const char *transport_explain(struct transport *t, int wait_status, int *ret_code)
{
	static const char *const names[] = {"syncctl serve", "syncd-ssh", "ssh"};
	char said[NOTE_BYTES];
	const char *line;

	*ret_code = code_of(t, wait_status);
	line = last_line(t);
	if (*line) {
		/* quoted so that the far side's words cannot write on a terminal; the quotes themselves are dropped */
		text_quote(said, sizeof(said), line);
		said[strlen(said) - 1] = 0;
		snprintf(t->text, sizeof(t->text), "%s", said + 1);
	} else if (WIFSIGNALED(wait_status)) {
		snprintf(t->text, sizeof(t->text), "%s to %s was ended by signal %d", names[t->kind], t->host,
			WTERMSIG(wait_status));
	} else {
		snprintf(t->text, sizeof(t->text), "%s to %s ended with status %d", names[t->kind], t->host,
			WEXITSTATUS(wait_status));
	}
	return t->text;
}

int transport_reap(struct transport *t, int *ret_status)
{
	pid_t pid;

	if (t->reaped)
		return -ECHILD;
	pid = waitpid(t->pid, ret_status, WNOHANG);
	if (pid == 0)
		return TRANSPORT_RUNNING;
	t->reaped = true;
	return pid < 0 ? -errno : 0;
}

void transport_end(struct transport *t, bool force)
{
	if (t->pid > 0 && !t->reaped)
		kill(t->pid, force ? SIGKILL : SIGTERM);
}

static bool ends_within(pid_t pid, int ms)
{
	pid_t ended = waitpid(pid, NULL, WNOHANG);

	for (; ended == 0 && ms > 0; ms -= TERM_STEP_MS) {
		usleep(TERM_STEP_MS * 1000);
		ended = waitpid(pid, NULL, WNOHANG);
	}
	return ended != 0;
}

/* It may end in order; one that does not listen must not hold us up. Who serves a folder here sees the end of its stream, and has an
 * index to close: killed before that, it would have to read all of it next time. */
static void end_child(pid_t pid, bool serves)
{
	if (serves && ends_within(pid, TERM_MS))
		return;
	kill(pid, SIGTERM);
	if (ends_within(pid, TERM_MS))
		return;
	kill(pid, SIGKILL);
	while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
		;
}

void transport_free(struct transport *t)
{
	if (!t)
		return;
	close_keep(t->fd);
	close_keep(t->err);
	if (t->pid > 0 && !t->reaped)
		end_child(t->pid, t->kind == TRANSPORT_LOCAL);
	free(t);
}
