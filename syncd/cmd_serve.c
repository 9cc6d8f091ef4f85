/*
 * syncctl serve — the far end of a session, on standard input and output.
 *
 * The client's OPEN says which replica it wants: a path, from the home directory on, or the name of a configured folder, where
 * nothing of that name is there; --root or --folder fix it (for a forced command in authorized_keys: what the client
 * asks is then ignored), --mode fixes what this side does. Where a daemon has the replica, the stream is handed to it
 * together with what was read of it, and this process stays until the daemon is done: sshd ends with its command.
 */
#include <errno.h>
#include <getopt.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/log.h"
#include "syncd/commands.h"
#include "syncd/control.h"
#include "syncd/exit_codes.h"
#include "syncd/ui.h"
#include "transfer/frame.h"

#define OPEN_TIMEOUT_NS (60 * CLOCK_NS_PER_S)

struct serve {
	const char *root, *folder_name, *config_file, *socket;
	bool mode_fixed, sends, takes;
	bool here; /* the client is on this machine */
	uv_loop_t loop;
	struct buf initial;	   /* what was read of the stream */
	struct message_open open;
	char path[PATH_MAX];
	bool configured;	   /* it is a configured folder's: never made here */
	struct folder *folder;
	struct folder_session *session;
	uint16_t fail_code;
	char why[1024];
	int exit_code;
};

static const struct option options[] = {
	{"root", required_argument, NULL, 'r'},
	{"folder", required_argument, NULL, 'f'},
	{"mode", required_argument, NULL, 'm'},
	{"config", required_argument, NULL, 'c'},
	{"socket", required_argument, NULL, 's'},
	{"here", no_argument, NULL, 'H'},
	{"help", no_argument, NULL, 'h'},
	{0},
};

static const char usage[] = "usage: syncctl serve [--folder NAME | --root PATH] [--mode two-way|push|pull] [--here] [--config FILE] [--socket PATH]\n";

/* Read until the client's OPEN is there. 0, or an exit code after saying why on stderr. */
static int read_open(struct serve *s)
{
	struct frame_reader *reader = NULL;
	int64_t deadline = clock_monotonic_ns() + OPEN_TIMEOUT_NS;
	int r = frame_reader_new(&reader, message_max_bytes), code = EXIT_FAILED;

	while (r == 0) {
		struct pollfd p = {.fd = 0, .events = POLLIN};
		uint8_t bytes[4096], type;
		const uint8_t *payload;
		union message m;
		size_t n;
		ssize_t got;

		if (clock_monotonic_ns() > deadline || poll(&p, 1, 1000) < 0) {
			log_error("no client spoke within %d s", (int)(OPEN_TIMEOUT_NS / CLOCK_NS_PER_S));
			code = EXIT_CONNECT;
			break;
		}
		if (!p.revents)
			continue;
		got = read(0, bytes, sizeof(bytes));
		if (got < 0 && (errno == EINTR || errno == EAGAIN))
			continue;
		if (got <= 0) {
			log_error("the client closed the connection before it said what it wants");
			code = EXIT_CONNECT;
			break;
		}
		put_bytes(&s->initial, bytes, (size_t)got);
		r = frame_reader_feed(reader, bytes, (size_t)got);
		if (r == 0)
			r = frame_read(reader, &type, &payload, &n);
		if (r == FRAME_MORE) {
			r = 0;
			continue;
		}
		if (r == FRAME_NOT_SYNCD) {
			log_error("what came in is not syncd's protocol: %s", quoted(frame_reader_garbage(reader)));
			code = EXIT_PROTOCOL;
		} else if (r == FRAME_VERSION) {
			struct buf preface = BUF_INIT;
			uint8_t min, max;

			frame_put_preface(&preface); /* so that the client can say the same */
			if (write(1, preface.data, preface.len) < 0)
				log_debug("the client does not listen");
			buf_deinit(&preface);
			frame_reader_versions(reader, &min, &max);
			log_error("the client speaks versions %u to %u of the protocol, this side %u to %u: install the same syncd on both",
				min, max, FRAME_VERSION_MIN, FRAME_VERSION_MAX);
			code = EXIT_VERSION;
		} else if (r < 0 || type != MESSAGE_OPEN || message_decode(type, payload, n, &m) < 0) {
			log_error("the client broke the protocol: no valid OPEN");
			code = EXIT_PROTOCOL;
		} else {
			s->open = m.open; /* kept until the end */
			code = 0;
		}
		break;
	}
	frame_reader_free(reader);
	return code;
}

/* Which directory is it about? 0, or the reason in why. */
static int find_path(struct serve *s)
{
	const char *place = s->root ? s->root : s->open.place;
	int r;

	s->fail_code = MESSAGE_FAIL_NO_FOLDER;
	if (s->folder_name) {
		r = command_folder_path(s->folder_name, s->socket, s->config_file, s->path, sizeof(s->path));
		if (r < 0)
			snprintf(s->why, sizeof(s->why), "no folder of the name %s is configured there", s->folder_name);
		s->configured = true;
		return r;
	}
	s->configured = !s->root && command_named_folder(place, s->socket, s->config_file, s->path, sizeof(s->path)) == 0;
	if (s->configured)
		return 0;
	r = command_absolute(place, s->path, sizeof(s->path));
	if (r < 0)
		snprintf(s->why, sizeof(s->why), "%s: %s", place, file_error_text(r));
	return r;
}

static struct folder *choose(const struct message_open *open, bool *ret_sends, bool *ret_takes, uint16_t *ret_code, char *why, size_t n,
	void *data)
{
	struct serve *s = data;

	(void)open;
	*ret_sends = s->mode_fixed ? s->sends : s->open.sends;
	*ret_takes = s->mode_fixed ? s->takes : s->open.takes;
	*ret_code = s->fail_code;
	snprintf(why, n, "%s", s->why);
	return s->folder;
}

static void on_folder_closed(void *data)
{
	struct serve *s = data;

	s->folder = NULL;
}

static void on_ended(struct folder_session *session, const struct session_status *st, void *data)
{
	struct serve *s = data;

	(void)session;
	s->exit_code = ui_exit_of_session(st);
	if (st->failed)
		log_error("%s", *st->text ? st->text : file_error_text(st->error));
	if (s->folder)
		folder_close(s->folder, on_folder_closed, s);
}

static int run_here(struct serve *s)
{
	struct folder_accept_options accept = {
		.loop = &s->loop,
		.fd_in = dup(0),
		.fd_out = dup(1),
		.initial = s->initial.data,
		.n_initial = s->initial.len,
		.peer = "the client",
		.here = s->here,
		.owners = true, /* this process can do no more than its user */
		.choose = choose,
		.ended = on_ended,
		.data = s,
	};
	int r = folder_accept(&s->session, &accept);

	if (r < 0) {
		log_error("cannot serve on standard input and output: %s", file_error_text(r));
		s->exit_code = EXIT_FAILED;
		if (s->folder) /* it has begun to scan */
			folder_close(s->folder, on_folder_closed, s);
	}
	uv_run(&s->loop, UV_RUN_DEFAULT);
	return s->exit_code;
}

static int run_in_daemon(struct serve *s, const char *socket)
{
	cleanup_free char *hex = malloc(2 * s->initial.len + 1);
	json_t *answer = NULL, *request;
	int fds[2] = {0, 1}, code;

	if (!hex)
		return EXIT_FAILED;
	for (size_t i = 0; i < s->initial.len; i++)
		snprintf(hex + 2 * i, 3, "%02x", s->initial.data[i]);
	request = json_pack("{s:s, s:s, s:s, s:b}", "command", "serve", "path", s->path, "initial", hex, "here", s->here);
	if (s->mode_fixed) {
		json_object_set_new(request, "sends", json_boolean(s->sends));
		json_object_set_new(request, "takes", json_boolean(s->takes));
	}
	code = command_call(socket, request, fds, 2, &answer);
	if (code)
		return code;
	code = (int)json_integer_value(json_object_get(answer, "exit"));
	json_decref(answer);
	return code;
}

/* Open the folder here; where that fails the session itself tells the client why. */
static int open_and_run(struct serve *s)
{
	struct folder_options o;
	char *holder;
	int r, code;

	command_folder_options(&o, &s->loop, s->path);
	o.create = s->open.create && !s->configured;
	o.algorithm = (enum hash_algorithm)s->open.algorithm;
	o.watch = s->open.live;
	o.rescan_interval_ms = s->open.live ? FOLDER_RESCAN_MS : 0;
	o.confirmed = s->open.confirmed;
	/* There is nothing to be had from a directory that is not there. */
	if (o.create && (s->mode_fixed ? s->takes : s->open.takes) && mkdir(s->path, 0755) < 0 && errno != EEXIST)
		log_debug("cannot make %s: %s", s->path, file_error_text(-errno));
	r = command_folder_open(&s->folder, &o, s->why, sizeof(s->why), &holder);
	if (holder) {
		code = run_in_daemon(s, s->socket ? s->socket : holder);
		free(holder);
		return code;
	}
	if (r == STORE_LOCKED)
		s->fail_code = MESSAGE_FAIL_BUSY;
	else if (r == STORE_DENIED)
		s->fail_code = MESSAGE_FAIL_DENIED;
	else if (r == STORE_FOREIGN || r == STORE_ROOT_CHANGED)
		s->fail_code = MESSAGE_FAIL_HALTED;
	else if (r == -ENOSPC)
		s->fail_code = MESSAGE_FAIL_SPACE;
	return run_here(s);
}

int cmd_serve(int argc, char **argv)
{
	struct serve s = {.sends = true, .takes = true};
	union message m;
	int c, code;

	log_set_name("syncctl serve");
	while ((c = getopt_long(argc, argv, "r:f:m:c:s:h", options, NULL)) != -1) {
		bool good = true;

		if (c == 'r')
			s.root = optarg;
		else if (c == 'f')
			s.folder_name = optarg;
		else if (c == 'm')
			s.mode_fixed = good = command_mode(optarg, &s.sends, &s.takes) == 0;
		else if (c == 'H')
			s.here = true;
		else if (c == 'c')
			s.config_file = optarg;
		else if (c == 's')
			s.socket = optarg;
		else
			good = false;
		if (!good) {
			fputs(usage, c == 'h' ? stdout : stderr);
			return c == 'h' ? EXIT_IN_SYNC : EXIT_USAGE;
		}
	}
	if (argc != optind) {
		fputs(usage, stderr);
		return EXIT_USAGE;
	}
	code = read_open(&s);
	if (code == 0)
		code = command_loop(&s.loop);
	if (code == 0) {
		code = find_path(&s) < 0 ? run_here(&s) : open_and_run(&s);
		uv_loop_close(&s.loop);
	}
	m.open = s.open;
	message_deinit(MESSAGE_OPEN, &m);
	buf_deinit(&s.initial);
	return code;
}
