/*
 * syncctl reconcile A B — make two replicas equal, once.
 *
 * One of them is on this machine: this process opens it, or, where a daemon has it, hands the daemon the stream to the other. The
 * other is served by `syncctl serve`, started through a transport as this user.
 */
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/log.h"
#include "syncd/commands.h"
#include "syncd/config.h"
#include "syncd/control.h"
#include "syncd/endpoint.h"
#include "syncd/exit_codes.h"
#include "syncd/ui.h"

#define CHILD_WAIT_MS 5000

struct reconcile {
	struct endpoint here, there;
	char path[PATH_MAX];
	bool sends, takes, revert, confirmed, anew, quiet, json;
	char *address; /* of the far one */
	enum hash_algorithm algorithm;
	struct link_limits limits;
	unsigned scan_cpu_percent;
	uint64_t scan_io;
	const char *socket, *config_file;
	struct transport_options transport;
	uv_loop_t loop;
	uv_poll_t err_poll;
	uv_timer_t progress;
	struct transport *child;
	struct folder *folder;
	struct folder_session *session;
	int exit_code;
	bool over;
	uint64_t problems;
};

static const struct option options[] = {
	{"mode", required_argument, NULL, 'm'},
	{"revert", no_argument, NULL, 'r'},
	{"identity", required_argument, NULL, 'i'},
	{"known-hosts", required_argument, NULL, 'k'},
	{"syncctl-path", required_argument, NULL, 'c'},
	{"transport", required_argument, NULL, 't'},
	{"port", required_argument, NULL, 'p'},
	{"confirm-deletions", no_argument, NULL, 'D'},
	{"new", no_argument, NULL, 'n'},
	{"hash", required_argument, NULL, 'H'},
	{"limit-up", required_argument, NULL, 'U'},
	{"limit-down", required_argument, NULL, 'd'},
	{"scan-cpu", required_argument, NULL, 'P'},
	{"scan-io", required_argument, NULL, 'I'},
	{"socket", required_argument, NULL, 's'},
	{"config", required_argument, NULL, 'C'},
	{"quiet", no_argument, NULL, 'q'},
	{"json", no_argument, NULL, 'j'},
	{"help", no_argument, NULL, 'h'},
	{0},
};

static const char usage[] =
	"usage: syncctl reconcile [--mode two-way|push|pull [--revert]] [-i KEY] [--known-hosts FILE] [--syncctl-path CMD]\n"
	"                         [--transport ssh|syncd-ssh] [--confirm-deletions] [--new] [--hash sha256|blake2b|xxh3]\n"
	"                         [--limit-up RATE] [--limit-down RATE] [--scan-cpu PERCENT%] [--scan-io RATE]\n"
	"                         [--config FILE] [--socket PATH] [-q] [--json] A B\n"
	"A or B is on this machine; push: A to B only, pull: B to A only\n";

static int parse_option(struct reconcile *r, int c)
{
	switch (c) {
	case 'm':
		return command_mode(optarg, &r->sends, &r->takes);
	case 'r':
		r->revert = true;
		return 0;
	case 'i':
		r->transport.identity = optarg;
		return 0;
	case 'k':
		r->transport.known_hosts = optarg;
		return 0;
	case 'c':
		r->transport.remote_command = optarg;
		return 0;
	case 't':
		r->transport.kind = strcmp(optarg, "ssh") == 0 ? TRANSPORT_SSH : TRANSPORT_SSH2;
		return strcmp(optarg, "ssh") == 0 || strcmp(optarg, "syncd-ssh") == 0 ? 0 : -EINVAL;
	case 'p':
		r->transport.port = (uint16_t)strtoul(optarg, NULL, 10);
		return r->transport.port ? 0 : -EINVAL;
	case 'D':
		r->confirmed = true;
		return 0;
	case 'n':
		r->anew = true;
		return 0;
	case 'H':
		return hash_algorithm_parse(optarg, &r->algorithm);
	case 'U':
		return config_parse_rate(optarg, &r->limits.up.rate);
	case 'd':
		return config_parse_rate(optarg, &r->limits.down.rate);
	case 'P':
		return config_parse_percent(optarg, &r->scan_cpu_percent);
	case 'I':
		return config_parse_rate(optarg, &r->scan_io);
	case 's':
		r->socket = optarg;
		return 0;
	case 'C':
		r->config_file = optarg;
		return 0;
	case 'q':
		r->quiet = true;
		return 0;
	case 'j':
		r->json = true;
		return 0;
	default:
		return -EINVAL;
	}
}

/* A first, then B; the one that is here becomes `here`, with the mode seen from it. */
static int parse_endpoints(struct reconcile *r, const char *a, const char *b)
{
	const char *why;
	struct endpoint swap;
	bool sends = r->sends;
	int error;

	error = endpoint_parse(&r->here, a, &why);
	if (error < 0) {
		log_error("%s is no replica's name: %s", quoted(a), why);
		return error;
	}
	error = endpoint_parse(&r->there, b, &why);
	if (error < 0) {
		log_error("%s is no replica's name: %s", quoted(b), why);
		return error;
	}
	if (r->here.remote && r->there.remote) {
		log_error("one of the two replicas must be on this machine: run syncctl on one of %s and %s", quoted(r->here.host),
			quoted(r->there.host));
		return -EINVAL;
	}
	if (!r->here.remote)
		return 0;
	swap = r->here;
	r->here = r->there;
	r->there = swap;
	r->sends = r->takes;
	r->takes = sends;
	return 0;
}

/* A word that is no directory may be a configured folder's name; at a far side `serve` sees to that. */
static void resolve_folder(const struct reconcile *r, struct endpoint *e)
{
	char path[PATH_MAX];

	if (e->remote || command_named_folder(e->path, r->socket, r->config_file, path, sizeof(path)) < 0)
		return;
	free(e->path);
	e->path = strdup(path);
}

/* --- the child --- */

static void on_stderr(uv_poll_t *poll, int status, int events)
{
	struct reconcile *r = poll->data;
	char text[2048];
	ssize_t n;

	(void)events;
	while ((n = read(transport_stderr(r->child), text, sizeof(text))) > 0)
		transport_note(r->child, text, (size_t)n);
	if (n == 0 || status < 0)
		uv_poll_stop(poll);
}

/* Why the child ended; waits a little for it. 0 or an exit code. */
static int child_result(struct reconcile *r, const char **ret_text)
{
	int status = 0, code = 0;
	char text[2048];
	ssize_t n;

	for (int waited = 0; transport_reap(r->child, &status) == TRANSPORT_RUNNING; waited += 20) {
		if (waited >= CHILD_WAIT_MS)
			return 0;
		usleep(20000);
	}
	while ((n = read(transport_stderr(r->child), text, sizeof(text))) > 0)
		transport_note(r->child, text, (size_t)n);
	*ret_text = transport_explain(r->child, status, &code);
	return ui_exit_of_transport(code);
}

static int start_child(struct reconcile *r)
{
	int error;

	r->transport.user = r->there.user;
	r->transport.host = r->there.host;
	r->transport.port = r->there.port;
	if (!r->there.remote)
		r->transport.kind = TRANSPORT_LOCAL;
	error = transport_start(&r->child, &r->transport);
	if (error < 0)
		log_error("cannot start the transport to %s: %s", r->there.remote ? quoted(r->there.host) : quoted(r->there.path),
			file_error_text(error));
	return error;
}

/* --- the session --- */

static void clear_progress(const struct reconcile *r)
{
	if (!r->quiet && !r->json && isatty(2))
		fputs("\r\033[K", stderr);
}

static void on_progress(uv_timer_t *timer)
{
	struct reconcile *r = timer->data;
	static const char *const words[] = {"connecting", "scanning", "syncing", "finishing", ""};
	struct session_status st;
	char in[16], out[16];

	if (!r->session || r->over)
		return;
	session_status(folder_session_core(r->session), &st);
	fprintf(stderr, "\r\033[K%s: %" PRIu64 " paths done, %" PRIu64 " under way; received %s, sent %s", words[st.state], st.applied,
		st.pending, ui_bytes(st.content_in, in), ui_bytes(st.content_out, out));
}

static void say_problems(const json_t *status)
{
	const json_t *item;
	size_t i;

	json_array_foreach(json_object_get(status, "not_in_sync"), i, item) {
		if (!ui_is_held(item))
			log_warning("%s: %s; %s", quoted(json_string_value(json_object_get(item, "path"))),
				json_string_value(json_object_get(item, "why")), json_string_value(json_object_get(item, "todo")));
	}
}

static void print_summary(struct reconcile *r, const struct session_status *st)
{
	json_t *status = folder_status_json(r->folder);
	char in[16], out[16], paths[48], count[48];

	if (r->json) {
		json_object_set_new(status, "in_sync", json_boolean(st->in_sync));
		json_object_set_new(status, "rounds", json_integer(st->round));
		json_object_set_new(status, "applied", json_integer((json_int_t)st->applied));
		json_object_set_new(status, "local_differences", json_integer((json_int_t)st->differences));
		json_object_set_new(status, "conflicts", json_integer((json_int_t)st->conflicts));
		json_object_set_new(status, "bytes_in", json_integer((json_int_t)st->bytes_in));
		json_object_set_new(status, "bytes_out", json_integer((json_int_t)st->bytes_out));
		json_object_set_new(status, "exit", json_integer(r->exit_code));
		json_dumpf(status, stdout, JSON_INDENT(2));
		putchar('\n');
	} else if (r->exit_code != EXIT_SPACE) { /* said in one line, for all */
		say_problems(status);
	}
	if (!r->json && !r->quiet) {
		printf("%s: %s changed here, received %s, sent %s, %s\n",
			st->in_sync ? "in sync" : st->failed ? "failed" : "not everything is in sync",
			ui_count(st->applied, "path", paths), ui_bytes(st->bytes_in, in), ui_bytes(st->bytes_out, out),
			ui_count(st->round, "round", count));
		if (st->differences)
			printf("%s: what is here is not what is on the other side%s\n",
				ui_count(st->differences, "local difference", count), r->revert ? "" : "; --revert would undo what was changed here");
		if (st->conflicts)
			printf("%s: both versions are kept; list them with: syncctl conflicts %s\n",
				ui_count(st->conflicts, "conflict", count), r->here.path);
	}
	json_decref(status);
}

static void on_handle_closed(uv_handle_t *handle)
{
	(void)handle;
}

static void on_folder_closed(void *data)
{
	struct reconcile *r = data;

	r->folder = NULL;
}

static void close_all(struct reconcile *r)
{
	if (r->progress.data)
		uv_close((uv_handle_t *)&r->progress, on_handle_closed);
	if (r->err_poll.data)
		uv_close((uv_handle_t *)&r->err_poll, on_handle_closed);
	folder_close(r->folder, on_folder_closed, r);
}

static void on_ended(struct folder_session *s, const struct session_status *st, void *data)
{
	struct reconcile *r = data;
	const char *why = st->text, *child_text = NULL;
	char count[48];
	int child_code;

	(void)s;
	r->over = true;
	r->session = NULL;
	r->exit_code = ui_exit_of_session(st);
	clear_progress(r);
	if (st->failed) {
		child_code = r->exit_code == EXIT_CONNECT || r->exit_code == EXIT_PROTOCOL ? child_result(r, &child_text) : 0;
		if (child_code) {
			r->exit_code = child_code;
			why = child_text;
		}
		log_error("%s", *why ? why : file_error_text(st->error));
	} else if (r->exit_code == EXIT_SPACE) {
		log_error("no space left on the disk%s%s: %" PRIu64
			  " paths are not in sync; nothing is lost: make room and run again",
			st->full ? " here" : "", st->peer_full ? st->full ? " and on the other side" : " on the other side" : "",
			st->full + st->peer_full);
	} else if (r->exit_code == EXIT_HELD) {
		log_error("%" PRIu64 " deletions here and %" PRIu64
			  " there are held: they are more than may pass unseen; if they are meant, run again with --confirm-deletions",
			st->held, st->peer_held);
	} else if (st->peer_skipped) {
		log_error("%s could not be brought in sync on the other side", ui_count(st->peer_skipped, "path", count));
	}
	if (folder_held(r->folder) && r->exit_code == EXIT_IN_SYNC) {
		r->exit_code = EXIT_HELD;
		log_error("%" PRIu64 " deletions here are held; if they are meant, run again with --confirm-deletions",
			folder_held(r->folder));
	}
	if (!st->failed && r->exit_code == EXIT_IN_SYNC && folder_problem_count(r->folder))
		r->exit_code = EXIT_PARTIAL;
	if (!st->failed || r->json)
		print_summary(r, st);
	close_all(r);
}

static struct message_open what_to_ask(const struct reconcile *r)
{
	return (struct message_open){
		.place = r->there.path,
		.create = true,
		.algorithm = (uint8_t)r->algorithm,
		.sends = r->takes,
		.takes = r->sends,
		.confirmed = r->confirmed,
	};
}

static int run_here(struct reconcile *r)
{
	struct folder_session_options session = {
		.peer = r->there.host ? r->there.host : r->there.path,
		.client = true,
		.owners = true,
		.sends = r->sends,
		.takes = r->takes,
		.revert = r->revert,
		.confirmed = r->confirmed,
		.here = !r->there.remote,
		.open = what_to_ask(r),
		.address = r->address,
		.anew = r->anew,
		.limits = &r->limits,
		.ended = on_ended,
		.data = r,
	};
	int error;

	if (start_child(r) < 0) {
		close_all(r);
		uv_run(&r->loop, UV_RUN_DEFAULT);
		return EXIT_COMMAND;
	}
	error = uv_poll_init(&r->loop, &r->err_poll, transport_stderr(r->child));
	if (error == 0) {
		r->err_poll.data = r;
		uv_poll_start(&r->err_poll, UV_READABLE, on_stderr);
		session.fd_in = session.fd_out = transport_take_fd(r->child);
		error = folder_connect(r->folder, &r->session, &session);
		if (error < 0)
			close_keep(session.fd_in);
	}
	if (error < 0) {
		log_error("cannot begin the session: %s", file_error_text(error));
		r->exit_code = EXIT_FAILED;
		close_all(r);
	} else if (!r->quiet) {
		uv_timer_init(&r->loop, &r->progress);
		r->progress.data = r;
		if (!r->json && isatty(2))
			uv_timer_start(&r->progress, on_progress, 300, 300);
	}
	uv_run(&r->loop, UV_RUN_DEFAULT);
	return r->exit_code;
}

/* The daemon has the folder: it drives the session over the stream that we bring. */
static int run_in_daemon(struct reconcile *r, const char *socket)
{
	json_t *answer = NULL, *request;
	const char *text = NULL;
	int fd, code, child_code;

	if (start_child(r) < 0)
		return EXIT_COMMAND;
	request = json_pack("{s:s, s:s, s:s, s:s, s:s, s:b, s:b, s:b, s:b, s:b, s:b, s:i, s:I, s:I}", "command", "attach", "path", r->path, "place", r->there.path, "peer",
		r->there.host ? r->there.host : r->there.path, "address", r->address, "sends", r->sends, "takes",
		r->takes, "revert", r->revert, "confirmed", r->confirmed, "anew", r->anew, "here", !r->there.remote, "algorithm", (int)r->algorithm,
		"limit_up", (json_int_t)r->limits.up.rate, "limit_down", (json_int_t)r->limits.down.rate);
	fd = transport_take_fd(r->child);
	code = command_call(socket, request, &fd, 1, &answer);
	close(fd);
	if (code == EXIT_CONNECT || code == EXIT_PROTOCOL) {
		child_code = child_result(r, &text);
		if (child_code)
			log_error("%s", text);
		return child_code ? child_code : code;
	}
	if (code)
		return code;
	code = (int)json_integer_value(json_object_get(answer, "exit"));
	if (r->json) {
		json_dumpf(answer, stdout, JSON_INDENT(2));
		putchar('\n');
	} else if (!r->quiet) {
		printf("%s\n", json_string_value(json_object_get(answer, "summary")));
	}
	json_decref(answer);
	return code;
}

DEFINE_CLEANUP(struct pace_limits *, pace_limits_free)

static int open_here(struct reconcile *r)
{
	struct folder_options folder;
	cleanup(pace_limits_free_p) struct pace_limits *pace = NULL;
	char why[1024];
	char *holder;
	int error, code;

	command_folder_options(&folder, &r->loop, r->path);
	folder.create = true;
	folder.revert = r->revert;
	folder.confirmed = r->confirmed;
	folder.algorithm = r->algorithm;
	error = pace_limits_new(&pace, r->scan_cpu_percent, r->scan_io);
	if (error < 0) {
		log_error("%s", file_error_text(error));
		return EXIT_FAILED;
	}
	folder.pace = pace;
	error = command_folder_open(&r->folder, &folder, why, sizeof(why), &holder);
	if (error == 0)
		return run_here(r);
	if (holder) {
		code = run_in_daemon(r, r->socket ? r->socket : holder);
		free(holder);
		return code;
	}
	log_error("%s", why);
	return ui_exit_of_store(error);
}

/* Where both are here: the same directory, or one inside the other? */
static bool overlapping(const struct reconcile *r)
{
	char other[PATH_MAX];
	size_t n;

	if (r->there.remote || command_absolute(r->there.path, other, sizeof(other)) < 0)
		return false;
	n = strlen(r->path) < strlen(other) ? strlen(r->path) : strlen(other);
	return strncmp(r->path, other, n) == 0 && (r->path[n] == 0 || r->path[n] == '/') && (other[n] == 0 || other[n] == '/');
}

int cmd_reconcile(int argc, char **argv)
{
	struct reconcile r = {.sends = true, .takes = true, .transport = {.kind = TRANSPORT_SSH2}};
	int c, error, code = EXIT_USAGE;
	bool good;

	while ((c = getopt_long(argc, argv, "m:i:k:c:t:p:s:qjh", options, NULL)) != -1) {
		if (c == 'h') {
			fputs(usage, stdout);
			return EXIT_IN_SYNC;
		}
		if (parse_option(&r, c) < 0) {
			if (c != '?')
				log_error("%s is not a value for this option", quoted(optarg ? optarg : ""));
			fputs(usage, stderr);
			return EXIT_USAGE;
		}
	}
	if (argc - optind != 2) {
		fputs(usage, stderr);
		return EXIT_USAGE;
	}
	good = parse_endpoints(&r, argv[optind], argv[optind + 1]) == 0;
	if (good && r.revert && (r.sends || !r.takes)) {
		log_error("--revert undoes changes on a side that only takes: with --mode pull A B, A must be on this machine");
		good = false;
	}
	if (good) {
		resolve_folder(&r, &r.here);
		resolve_folder(&r, &r.there);
	}
	if (good && !r.there.port)
		r.there.port = r.transport.port;
	if (good) {
		error = r.here.path && r.there.path ? command_absolute(r.here.path, r.path, sizeof(r.path)) : -ENOMEM;
		if (error == 0 && !(r.address = endpoint_address(&r.there)))
			error = -ENOMEM;
		if (error != 0)
			log_error("%s", file_error_text(error));
		good = error == 0;
	}
	if (good) {
		if (overlapping(&r)) {
			log_error("%s and %s are, or contain, the same directory", quoted(r.here.path), quoted(r.there.path));
		} else if ((code = command_loop(&r.loop)) == 0) {
			code = open_here(&r);
			uv_loop_close(&r.loop);
			transport_free(r.child);
		}
	}
	endpoint_deinit(&r.here);
	endpoint_deinit(&r.there);
	free(r.address);
	return code;
}
