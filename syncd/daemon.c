/*
 * syncd/daemon.c — see syncd/daemon.h.
 *
 *   struct daemon ── struct place (a configured folder: opened, or the reason why not) ── struct peer (its transport and session)
 */
#include "syncd/daemon.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <inttypes.h>
#include <limits.h>
#include <pwd.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/log.h"
#include "base/random.h"
#include "syncd/control.h"
#include "syncd/daemon_internal.h"
#include "syncd/exit_codes.h"
#include "syncd/ui.h"

#define REOPEN_MS 2000
#define FAILING_MS 60000 /* each attempt reads the whole index */
#define LOCKED_MS 500 /* well under a peer's wait before it connects again: whoever gives the lock up gives it to us */
#define SAID_LINES 20
#define REAP_MS 50
#define REAP_TRIES 100 /* then it is asked to end */
#define REAP_TERM_TRIES 20 /* then it is killed, and waited for: it can only be a moment */

static void peer_connect(struct peer *p);

/* --- what is remembered outside of the folders --- */

static void marker_path(const struct place *p, char *ret, size_t n)
{
	snprintf(ret, n, "%s/%s.known", p->daemon->state_dir, p->config->name);
}

static bool was_known(const struct place *p)
{
	char path[PATH_MAX];

	marker_path(p, path, sizeof(path));
	return access(path, F_OK) == 0;
}

static void remember(const struct place *p)
{
	char path[PATH_MAX];
	int fd;

	marker_path(p, path, sizeof(path));
	fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	if (fd < 0 || fsync(fd) < 0)
		log_warning("%s: cannot remember in %s that this folder has an index: %s", p->config->name, path, file_error_text(-errno));
	close_keep(fd);
}

/* --- peers --- */

/* in_order: nothing is wrong, as far as we know. */
static void peer_retry(struct peer *p, const char *why, bool in_order)
{
	bool stopping = p->place->daemon->stopping;
	int64_t ms = schedule_failed(&p->schedule, random_id());

	if (strcmp(p->error, why) != 0) {
		snprintf(p->error, sizeof(p->error), "%s", why);
		p->error_since = (int64_t)time(NULL);
		if (in_order)
			log_info("%s: peer %s: %s%s", p->place->config->name, p->config->name, why,
				stopping ? "" : "; connecting again when it is back");
		else
			log_warning("%s: peer %s: %s%s", p->place->config->name, p->config->name, why, stopping ? "" : "; trying again");
	}
	if (!stopping)
		uv_timer_start(&p->timer, peer_on_timer, (uint64_t)ms, 0);
}

/* A line that the far side said of its own accord: what it could not read, for instance. It is not its log: so many in a minute. */
static void tell_said(struct peer *p)
{
	int64_t now = clock_monotonic_ns();

	p->said[p->said_n] = '\0';
	p->said_n = 0;
	if (!p->said_since_ns || now - p->said_since_ns > CLOCK_NS_PER_S * 60) {
		p->said_since_ns = now;
		p->said_lines = 0;
	}
	if (p->said[0] && p->said_lines++ < SAID_LINES)
		log_info("%s: peer %s says: %s", p->place->config->name, p->config->name, quoted(p->said));
}

/* Only of whom we know: before that it is what ssh, or a shell, says, which is told if there comes no more. */
static void hear(struct peer *p, const char *text, size_t n)
{
	struct session_status st = {.peer_name = ""};

	if (p->session)
		session_status(folder_session_core(p->session), &st);
	for (size_t i = 0; *st.peer_name && i < n; i++) {
		if (text[i] != '\n')
			p->said[p->said_n++] = text[i];
		if (text[i] == '\n' || p->said_n == sizeof(p->said) - 1)
			tell_said(p);
	}
}

static void on_peer_stderr(uv_poll_t *poll, int status, int events)
{
	struct peer *p = poll->data;
	char text[2048];
	ssize_t n;

	(void)events;
	while ((n = read(transport_stderr(p->transport), text, sizeof(text))) > 0) {
		hear(p, text, (size_t)n);
		transport_note(p->transport, text, (size_t)n);
	}
	if (n == 0 || status < 0)
		uv_poll_stop(poll);
}

static void on_peer_poll_closed(uv_handle_t *handle)
{
	struct peer *p = handle->data;

	p->polling = false;
	transport_free(p->transport);
	p->transport = NULL;
	turns_end(&p->place->daemon->turns, &p->turn);
	daemon_check_stopped(p->place->daemon);
}

/* The session is over: the child is looked at until it has ended, a little at a time, so that its words can be told. */
static void peer_reap(struct peer *p)
{
	int status = 0, code = 0;
	const char *text = "";
	bool running = transport_reap(p->transport, &status) == TRANSPORT_RUNNING;

	if (running && p->reap_tries++ < REAP_TRIES + REAP_TERM_TRIES && !p->place->daemon->stopping) {
		if (p->reap_tries == REAP_TRIES)
			transport_end(p->transport, false);
		if (p->reap_tries == REAP_TRIES + REAP_TERM_TRIES)
			transport_end(p->transport, true);
		uv_timer_start(&p->timer, peer_on_timer, REAP_MS, 0);
		return;
	}
	on_peer_stderr(&p->err_poll, 0, 0);
	if (!running)
		text = transport_explain(p->transport, status, &code);
	p->reaping = false;
	uv_close((uv_handle_t *)&p->err_poll, on_peer_poll_closed);
	if (p->gave_way && p->ended_in_order && !p->place->daemon->stopping) {
		p->gave_way = false;
		uv_timer_start(&p->timer, peer_on_timer, TURNS_LOOK_MS, 0);
		return;
	}
	p->gave_way = false;
	peer_retry(p, code && p->connection_lost ? text : p->ended_text, p->ended_in_order);
}

static void on_peer_ended(struct folder_session *s, const struct session_status *st, void *data)
{
	struct peer *p = data;

	(void)s;
	p->session = NULL;
	p->connection_lost = st->error == -EPIPE || st->error == -EPROTO;
	p->ended_in_order = !st->failed;
	snprintf(p->ended_text, sizeof(p->ended_text), "%s",
		*st->text ? st->text : st->failed ? file_error_text(st->error) : "the session was ended on this side");
	p->reaping = true;
	p->reap_tries = 0;
	uv_timer_start(&p->timer, peer_on_timer, 0, 0);
	daemon_flush_lost(p);
}

static void on_peer_round_over(struct folder_session *s, bool in_sync, void *data)
{
	struct peer *p = data;
	struct session_status st;

	session_status(folder_session_core(s), &st);
	if (*p->error)
		log_info("%s: peer %s: connected", p->place->config->name, p->config->name);
	p->error[0] = 0;
	p->last_round = (int64_t)time(NULL);
	p->in_sync = in_sync;
	p->local_differences = st.differences;
	uv_timer_start(&p->timer, peer_on_timer, (uint64_t)schedule_worked(&p->schedule, random_id()), 0);
	daemon_flush_round(p);
}

void peer_on_timer(uv_timer_t *timer)
{
	struct peer *p = timer->data;

	if (p->reaping)
		peer_reap(p);
	else if (p->session)
		folder_session_check(p->session);
	else if (!p->transport)
		peer_connect(p);
}

static void peer_connect(struct peer *p)
{
	const struct config_peer *c = p->config;
	cleanup_free char *address = endpoint_address(&p->endpoint);
	struct turns *turns = &p->place->daemon->turns;
	bool sends = c->mode != CONFIG_PULL, takes = c->mode != CONFIG_PUSH;
	struct transport_options transport = {
		.kind = !p->endpoint.remote ? TRANSPORT_LOCAL : c->transport_ssh ? TRANSPORT_SSH : TRANSPORT_SSH2,
		.user = p->endpoint.user,
		.host = p->endpoint.host,
		.port = p->endpoint.port,
		.identity = c->identity,
		.known_hosts = c->known_hosts,
		.remote_command = c->syncctl_path,
		.program_dir = p->place->daemon->program_dir,
		.connect_timeout_ms = c->connect_timeout_ms,
	};
	struct folder_session_options session = {
		.peer = c->name,
		.client = true,
		.owners = true,
		.live = true,
		.sends = sends,
		.takes = takes,
		.revert = c->revert,
		.here = transport.kind == TRANSPORT_LOCAL,
		.open = {.place = p->endpoint.path, .create = true, .sends = takes, .takes = sends, .live = true},
		.address = address,
		.limits = &p->limits,
		.ended = on_peer_ended,
		.round_over = on_peer_round_over,
		.data = p,
	};
	int r;

	if (!p->place->folder || folder_halted(p->place->folder) || p->place->daemon->stopping) {
		turns_end(turns, &p->turn);
		uv_timer_start(&p->timer, peer_on_timer, REOPEN_MS, 0);
		return;
	}
	if (!turns_ask(turns, &p->turn, clock_monotonic_ns())) {
		uv_timer_start(&p->timer, peer_on_timer, TURNS_LOOK_MS, 0);
		return;
	}
	r = transport_start(&p->transport, &transport);
	if (r < 0) {
		char why[256];

		turns_end(turns, &p->turn);
		snprintf(why, sizeof(why), "cannot start the transport: %s", file_error_text(r));
		peer_retry(p, why, false);
		return;
	}
	r = uv_poll_init(p->place->daemon->loop, &p->err_poll, transport_stderr(p->transport));
	if (r < 0) {
		transport_free(p->transport);
		p->transport = NULL;
		turns_end(turns, &p->turn);
		peer_retry(p, file_error_text(r), false);
		return;
	}
	p->err_poll.data = p;
	p->polling = true;
	p->said_n = 0;
	uv_poll_start(&p->err_poll, UV_READABLE, on_peer_stderr);
	session.fd_in = session.fd_out = transport_take_fd(p->transport);
	r = folder_connect(p->place->folder, &p->session, &session);
	if (r < 0) {
		close_keep(session.fd_in);
		p->connection_lost = p->ended_in_order = false;
		snprintf(p->ended_text, sizeof(p->ended_text), "cannot begin a session: %s", file_error_text(r));
		p->reaping = true;
		uv_timer_start(&p->timer, peer_on_timer, 0, 0);
	}
}

/* --- turns, where the number of sessions is limited --- */

bool daemon_gives_way(struct daemon *d, struct turn *turn, const struct folder_session *session)
{
	struct session_status st;

	if (!session || turn->state != TURN_HAS)
		return false;
	session_status(folder_session_core(session), &st);
	return st.state == SESSION_LIVE && turns_over(&d->turns, turn, clock_monotonic_ns());
}

static void on_turns(uv_timer_t *timer)
{
	struct daemon *d = timer->data;

	if (d->stopping)
		return;
	for (size_t i = 0; i < d->n_places; i++) {
		for (size_t j = 0; j < d->places[i].n_peers; j++) {
			struct peer *p = &d->places[i].peers[j];

			if (p->flushing || !daemon_gives_way(d, &p->turn, p->session))
				continue;
			p->gave_way = true;
			folder_session_finish(p->session);
		}
	}
	daemon_serve_waiting(d);
}

/* --- folders --- */

static int add_prefer(struct place *p)
{
	const struct config_folder *c = p->config;

	if (!c->n_prefer)
		return 0;
	p->prefer = calloc(c->n_prefer, sizeof(*p->prefer));
	if (!p->prefer)
		return -ENOMEM;
	for (size_t i = 0; i < c->n_prefer; i++)
		p->prefer[i] = strtoull(c->prefer[i], NULL, 16);
	return 0;
}

bool place_reverts(const struct place *p)
{
	for (size_t i = 0; i < p->n_peers; i++)
		if (p->peers[i].config->revert)
			return true;
	return false;
}

static void place_open(struct place *p)
{
	const struct config_folder *c = p->config;
	struct folder_options o = {
		.loop = p->daemon->loop,
		.name = c->name,
		.path = c->path,
		.state_dir = c->state_dir,
		.holder = p->daemon->socket,
		.create = !was_known(p),
		.algorithm = c->algorithm,
		.watch = true,
		.revert = place_reverts(p),
		.preserve_owner = c->owner && geteuid() == 0,
		.settle_ms = c->settle_ms,
		.rescan_interval_ms = c->rescan_interval_ms,
		.grace_ms = c->grace_ms,
		.member_expiry_ms = c->member_expiry_ms,
		.trash_keep_ms = c->trash_keep_ms,
		.trash_max_bytes = c->trash_max_bytes,
		.pace = p->daemon->pace,
		.policy = {.kind = c->conflict, .prefer = p->prefer, .n_prefer = c->n_prefer},
	};
	char why[1024] = "";
	int r = folder_open(&p->folder, &o, why, sizeof(why));

	if (r == 0) {
		p->reason[0] = 0;
		remember(p);
		log_info("%s: open: %s", c->name, folder_path(p->folder));
		for (size_t i = 0; i < p->n_peers; i++)
			if (!p->peers[i].transport)
				uv_timer_start(&p->peers[i].timer, peer_on_timer, random_below(200), 0); /* in no fixed order */
		uv_timer_start(&p->reopen, place_on_reopen, REOPEN_MS, REOPEN_MS);
		return;
	}
	if ((r == STORE_NO_INDEX || r == STORE_NO_ROOT) && was_known(p))
		snprintf(why, sizeof(why),
			"%s %s: not mounted, moved, or emptied? nothing is deleted anywhere; bring it back, or, to begin "
			"anew with what is there now, remove %s/%s.known",
			c->path, r == STORE_NO_ROOT ? "is not there" : "has no index, though it had one", p->daemon->state_dir, c->name);
	if (r == STORE_LOCKED)
		store_ask_release(c->path);
	if (strcmp(p->reason, why) != 0) {
		snprintf(p->reason, sizeof(p->reason), "%s", why);
		p->reason_since = (int64_t)time(NULL);
		log_error("%s: halted: %s", c->name, why);
	}
	uv_timer_start(&p->reopen, place_on_reopen, r == STORE_LOCKED ? LOCKED_MS : r == STORE_FAILING ? FAILING_MS : REOPEN_MS, 0);
}

static void on_halted_closed(void *data)
{
	struct place *p = data;

	p->folder = NULL;
	daemon_flush_abandon(p);
	place_open(p);
}

/* What is open and halted is closed, so that what comes back may be another mount of it, with another device number. */
void place_on_reopen(uv_timer_t *timer)
{
	struct place *p = timer->data;

	if (p->daemon->stopping)
		return;
	if (!p->folder)
		place_open(p);
	else if (folder_halted(p->folder))
		folder_close(p->folder, on_halted_closed, p);
}

static int place_init(struct daemon *d, struct place *p, const struct config_folder *config)
{
	size_t n = 0;
	int r;

	p->daemon = d;
	p->config = config;
	link_limits_init(&p->limits, config->limits.up, config->limits.down, &d->limits);
	uv_timer_init(d->loop, &p->reopen);
	p->reopen.data = p;
	for (size_t i = 0; i < d->config->n_peers; i++)
		n += strcmp(d->config->peers[i].folder, config->name) == 0;
	p->peers = calloc(n ? n : 1, sizeof(*p->peers));
	if (!p->peers)
		return -ENOMEM;
	for (size_t i = 0; i < d->config->n_peers; i++) {
		struct peer *peer = &p->peers[p->n_peers];
		const char *why;

		if (strcmp(d->config->peers[i].folder, config->name) != 0)
			continue;
		peer->place = p;
		peer->config = &d->config->peers[i];
		peer->schedule.interval_ms = config->interval_ms;
		link_limits_init(&peer->limits, peer->config->limits.up, peer->config->limits.down, &p->limits);
		uv_timer_init(d->loop, &peer->timer);
		peer->timer.data = peer;
		p->n_peers++;
		r = endpoint_parse(&peer->endpoint, peer->config->address, &why);
		if (r < 0)
			return r;
	}
	return add_prefer(p);
}

/* --- stopping --- */

static void on_closed(uv_handle_t *handle)
{
	(void)handle;
}

static void on_folder_closed(void *data)
{
	struct place *p = data;

	p->folder = NULL;
	daemon_check_stopped(p->daemon);
}

/* Once all folders are closed and all children gone, the remaining handles are closed, and the loop ends. */
void daemon_check_stopped(struct daemon *d)
{
	if (!d->stopping || d->stopped)
		return;
	for (size_t i = 0; i < d->n_places; i++) {
		if (d->places[i].folder)
			return;
		for (size_t j = 0; j < d->places[i].n_peers; j++)
			if (d->places[i].peers[j].polling)
				return;
	}
	d->stopped = true;
	for (size_t i = 0; i < d->n_places; i++) {
		uv_close((uv_handle_t *)&d->places[i].reopen, on_closed);
		for (size_t j = 0; j < d->places[i].n_peers; j++)
			uv_close((uv_handle_t *)&d->places[i].peers[j].timer, on_closed);
	}
	uv_close((uv_handle_t *)&d->turns_timer, on_closed);
	uv_close((uv_handle_t *)&d->sigterm, on_closed);
	uv_close((uv_handle_t *)&d->sigint, on_closed);
	control_server_close(d->control);
}

static void on_signal(uv_signal_t *handle, int number)
{
	struct daemon *d = handle->data;

	if (d->stopping)
		return;
	log_info("stopping (signal %d)", number);
	d->stopping = true;
	for (size_t i = 0; i < d->n_places; i++) {
		struct place *p = &d->places[i];

		uv_timer_stop(&p->reopen);
		if (p->folder)
			folder_close(p->folder, on_folder_closed, p);
	}
	daemon_check_stopped(d);
}

/* --- running --- */

static int make_state_dir(const char *path)
{
	if (mkdir(path, 0700) < 0 && errno != EEXIST) {
		log_error("cannot make the state directory %s: %s", path, file_error_text(-errno));
		return -errno;
	}
	return 0;
}

static int start(struct daemon *d)
{
	int r;

	r = control_server_new(&d->control, d->loop, d->socket, daemon_handle, d);
	if (r == -EADDRINUSE) {
		log_error("another syncd answers at %s", d->socket);
		return EXIT_LOCKED;
	}
	if (r < 0) {
		log_error("cannot listen at %s: %s", d->socket, file_error_text(r));
		return EXIT_FAILED;
	}
	uv_signal_init(d->loop, &d->sigterm);
	uv_signal_init(d->loop, &d->sigint);
	uv_timer_init(d->loop, &d->turns_timer);
	d->sigterm.data = d->sigint.data = d->turns_timer.data = d;
	d->turns.max = d->config->max_sessions;
	if (d->turns.max)
		uv_timer_start(&d->turns_timer, on_turns, TURNS_LOOK_MS, TURNS_LOOK_MS);
	uv_signal_start(&d->sigterm, on_signal, SIGTERM);
	uv_signal_start(&d->sigint, on_signal, SIGINT);
	for (size_t i = 0; i < d->n_places; i++) {
		r = place_init(d, &d->places[i], &d->config->folders[i]);
		if (r < 0) {
			log_error("%s: %s", d->config->folders[i].name, file_error_text(r));
			return EXIT_CONFIG;
		}
	}
	for (size_t i = 0; i < d->n_places; i++)
		place_open(&d->places[i]);
	return 0;
}

int daemon_run(const struct config *config, const char *socket, const char *state_dir, const char *program_dir)
{
	uv_loop_t loop;
	struct daemon d = {.config = config, .loop = &loop, .socket = socket, .state_dir = state_dir, .program_dir = program_dir};
	int code;

	if (make_state_dir(state_dir) < 0)
		return EXIT_FAILED;
	code = uv_loop_init(&loop);
	if (code < 0) {
		log_error("cannot begin: %s", file_error_text(code));
		return EXIT_FAILED;
	}
	d.places = calloc(config->n_folders ? config->n_folders : 1, sizeof(*d.places));
	d.n_places = config->n_folders;
	if (!d.places || pace_limits_new(&d.pace, config->scan_cpu_percent, config->scan_io) < 0) {
		log_error("cannot begin: %s", file_error_text(-ENOMEM));
		return EXIT_FAILED;
	}
	link_limits_init(&d.limits, config->limits.up, config->limits.down, NULL);
	code = start(&d);
	if (code == 0) {
		log_info("syncd %s, %zu folders, control socket %s", SYNCD_VERSION, d.n_places, socket);
		uv_run(&loop, UV_RUN_DEFAULT);
	}
	uv_loop_close(&loop);
	for (size_t i = 0; i < d.n_places; i++) {
		for (size_t j = 0; j < d.places[i].n_peers; j++)
			endpoint_deinit(&d.places[i].peers[j].endpoint);
		free(d.places[i].peers);
		free(d.places[i].prefer);
	}
	free(d.places);
	pace_limits_free(d.pace);
	return code;
}
