/*
 * syncd/daemon_control.c — what the daemon answers on its control socket, in one table.
 *
 * Who asks is a uid. Root and the daemon's own user may all; others what concerns folders that they may serve: the owner of
 * `.syncd`, and the configured serve_users.
 */
#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/error.h"
#include "base/clock.h"
#include "base/log.h"
#include "syncd/daemon_internal.h"
#include "syncd/exit_codes.h"
#include "syncd/report.h"
#include "syncd/ui.h"

/* --- who may --- */

static bool is_serve_user(const struct config_folder *c, uid_t uid)
{
	const struct passwd *pw = getpwuid(uid);

	for (size_t i = 0; i < c->n_serve_users; i++) {
		char *end;
		unsigned long number = strtoul(c->serve_users[i], &end, 10);

		if ((pw && strcmp(pw->pw_name, c->serve_users[i]) == 0) || (*c->serve_users[i] && !*end && number == uid))
			return true;
	}
	return false;
}

static bool may(const struct place *p, uid_t uid)
{
	uint32_t owner;

	if (uid == 0 || uid == geteuid() || is_serve_user(p->config, uid))
		return true;
	return store_owner(p->config->path, &owner) == 0 && owner == uid;
}

/* A stream that a mere owner of a folder brought must not make root's daemon write files of other users. */
static bool may_set_owners(uid_t uid)
{
	return uid == 0 || uid == geteuid();
}

static const char *text_of(const json_t *o, const char *key)
{
	return json_string_value(json_object_get(o, key));
}

static bool is_path_of(const struct place *p, const char *path)
{
	char real[PATH_MAX];

	return (p->folder && strcmp(folder_path(p->folder), path) == 0) || strcmp(p->config->path, path) == 0 ||
	       (realpath(p->config->path, real) && strcmp(real, path) == 0);
}

/* The folder that the request is about, by name or path; where only one is configured it may be left out. NULL after
 * answering why. */
static struct place *find_place(struct daemon *d, struct control_connection *c, const struct control_request *request)
{
	const char *name = text_of(request->json, "folder"), *path = text_of(request->json, "path");
	struct place *found = NULL;

	for (size_t i = 0; i < d->n_places; i++) {
		struct place *p = &d->places[i];

		if ((name && (strcmp(p->config->name, name) == 0 || is_path_of(p, name))) || (path && is_path_of(p, path)) ||
				(!name && !path && d->n_places == 1))
			found = p;
	}
	if (!found)
		control_answer(c, name || path ? control_error(EXIT_NO_FOLDER, "the daemon has no folder %s", name ? name : path)
					       : control_error(EXIT_USAGE, "name one of the %zu folders", d->n_places));
	else if (!may(found, request->uid))
		control_answer(c, control_error(EXIT_DENIED, "user %u may not use the folder %s", (unsigned)request->uid,
					  found->config->name));
	else
		return found;
	return NULL;
}

/* The same, and it must be open. */
static struct place *find_open(struct daemon *d, struct control_connection *c, const struct control_request *request)
{
	struct place *p = find_place(d, c, request);

	if (!p || (p->folder && !folder_halted(p->folder)))
		return p;
	control_answer(c, control_error(EXIT_HALTED, "%s is halted: %s", p->config->name,
				  p->folder ? folder_halt_reason(p->folder) : p->reason));
	return NULL;
}

/* --- status --- */

static const char *peer_state(const struct peer *p)
{
	return p->session ? "connected" : p->turn.state == TURN_WAITS ? "waits for its turn" : "not connected";
}

static json_t *peers_json(const struct place *p)
{
	json_t *list = json_array();

	for (size_t i = 0; i < p->n_peers; i++) {
		const struct peer *peer = &p->peers[i];

		json_array_append_new(list, json_pack("{s:s, s:s, s:s, s:s, s:I, s:I, s:I}", "peer", peer->config->name, "address",
						    peer->config->address, "state", peer_state(peer),
						    "error", peer->session ? "" : peer->error, "since",
						    (json_int_t)(peer->session ? 0 : peer->error_since), "last_round",
						    (json_int_t)peer->last_round, "local_differences",
						    (json_int_t)peer->local_differences));
	}
	return list;
}

/* Bytes a second; 0: none. What is in force, with those above. */
static json_t *limits_json(const struct link_limits *l)
{
	return json_pack("{s:I, s:I}", "up", (json_int_t)bucket_rate(&l->up), "down", (json_int_t)bucket_rate(&l->down));
}

static json_t *place_json(struct place *p)
{
	json_t *o;

	if (p->folder) {
		o = folder_status_json(p->folder);
	} else {
		o = json_pack("{s:s, s:s, s:s, s:s, s:I}", "folder", p->config->name, "path", p->config->path, "state", "halted",
			"reason", p->reason, "since", (json_int_t)p->reason_since);
	}
	json_object_set_new(o, "limits", limits_json(&p->limits));
	json_object_set_new(o, "peers", peers_json(p));
	return o;
}

static void answer_status(struct daemon *d, struct control_connection *c, struct control_request *request)
{
	json_t *list = json_array();
	bool one = text_of(request->json, "folder") || text_of(request->json, "path");
	struct place *only = one ? find_place(d, c, request) : NULL;

	if (one && !only) {
		json_decref(list);
		return;
	}
	for (size_t i = 0; i < d->n_places; i++)
		if ((!only || only == &d->places[i]) && may(&d->places[i], request->uid))
			json_array_append_new(list, place_json(&d->places[i]));
	control_answer(c, json_pack("{s:s, s:I, s:o, s:o, s:o}", "version", SYNCD_VERSION, "time_ms",
				  (json_int_t)(clock_wall_ns() / CLOCK_NS_PER_MS), "limits", limits_json(&d->limits), "sessions",
				  json_pack("{s:i, s:i, s:i}", "open", (int)turns_open(&d->turns), "waiting",
					  (int)turns_waiting(&d->turns), "max", (int)d->turns.max),
				  "folders", list));
}

/* --- scan, confirm --- */

static json_t *done(void)
{
	return json_pack("{s:b}", "done", true);
}

static void answer_scan(struct daemon *d, struct control_connection *c, struct control_request *request)
{
	struct place *p = find_open(d, c, request);

	if (!p)
		return;
	folder_scan(p->folder, false);
	control_answer(c, done());
}

static void answer_confirm(struct daemon *d, struct control_connection *c, struct control_request *request)
{
	struct place *p = find_open(d, c, request);

	if (!p)
		return;
	log_info("%s: deletions confirmed by user %u", p->config->name, (unsigned)request->uid);
	folder_confirm(p->folder);
	control_answer(c, done());
}

/* --- flush --- */

static void flush_forget(struct flush *f)
{
	f->place->flush = NULL;
	for (size_t i = 0; i < f->place->n_peers; i++)
		f->place->peers[i].flushing = false;
	free(f);
}

static void flush_over(struct flush *f, json_t *answer)
{
	control_answer(f->connection, answer);
	flush_forget(f);
}

static void flush_failed(struct peer *p)
{
	flush_over(p->place->flush, control_error(EXIT_PARTIAL, "%s: peer %s is not in sync: see syncctl status",
					    p->place->config->name, p->config->name));
}

void daemon_flush_lost(struct peer *p)
{
	if (p->flushing)
		flush_failed(p);
}

/* Does the index still say what the peer had at the end of the round? */
static bool has_root(const struct place *p, const struct hash *root)
{
	struct index_txn *t = NULL;
	struct hash now;
	bool same = index_begin_read(replica_index(folder_replica(p->folder)), &t) == 0 && tree_root(t, TREE_LIVE, &now) == 0 &&
		    hash_equal(&now, root);

	index_abort(t);
	return same;
}

/* A round that moved something, but did not bring all in sync (a conflict settles), is followed by another one. One that had
 * begun before the flush counts if nothing has changed since. */
void daemon_flush_round(struct peer *p)
{
	struct session_status st;
	bool counts;

	if (!p->flushing)
		return;
	session_status(folder_session_core(p->session), &st);
	counts = st.round >= p->flush_round || has_root(p->place, &st.root);
	if (counts && st.stuck) {
		flush_failed(p);
		return;
	}
	if (!counts || !st.in_sync)
		return;
	p->flushing = false;
	for (size_t i = 0; i < p->place->n_peers; i++)
		if (p->place->peers[i].flushing)
			return;
	flush_over(p->place->flush, done());
}

void daemon_flush_abandon(struct place *p)
{
	if (p->flush)
		flush_over(p->flush, control_error(EXIT_HALTED, "%s is halted: see syncctl status", p->config->name));
}

static void on_flush_settled(void *data)
{
	struct place *p = data;

	if (!p->flush)
		return;
	for (size_t i = 0; i < p->n_peers; i++) {
		if (p->peers[i].session)
			continue;
		flush_over(p->flush, control_error(EXIT_CONNECT, "%s: not all peers are connected: see syncctl status", p->config->name));
		return;
	}
	if (!p->n_peers) {
		flush_over(p->flush, done());
		return;
	}
	for (size_t i = 0; i < p->n_peers; i++) {
		struct session_status st;

		session_status(folder_session_core(p->peers[i].session), &st);
		p->peers[i].flushing = true;
		p->peers[i].flush_round = st.round + 1;
	}
	for (size_t i = 0; i < p->n_peers && p->flush; i++)
		folder_session_check(p->peers[i].session);
}

static void on_flush_gone(void *data)
{
	struct place *p = data;

	flush_forget(p->flush); /* nobody waits for it any more */
}

static void answer_flush(struct daemon *d, struct control_connection *c, struct control_request *request)
{
	struct place *p = find_open(d, c, request);

	if (!p)
		return;
	if (p->flush) {
		control_answer(c, control_error(EXIT_LOCKED, "%s: another flush is under way", p->config->name));
		return;
	}
	p->flush = calloc(1, sizeof(*p->flush));
	if (!p->flush) {
		control_answer(c, control_error(EXIT_FAILED, "out of memory"));
		return;
	}
	p->flush->connection = c;
	p->flush->place = p;
	control_on_gone(c, on_flush_gone, p);
	folder_scan(p->folder, false);
	folder_when_settled(p->folder, on_flush_settled, p);
}

/* --- purge --- */

struct purging {
	struct control_connection *connection; /* NULL: gone */
	struct place *place;
};

static void on_purged(const struct folder_upkeep *u, void *data)
{
	struct purging *p = data;

	if (p->connection)
		control_answer(p->connection, report_upkeep(p->place->config->name, u));
	free(p);
}

static void on_purging_gone(void *data)
{
	((struct purging *)data)->connection = NULL;
}

static void answer_purge(struct daemon *d, struct control_connection *c, struct control_request *request)
{
	struct place *place = find_open(d, c, request);
	struct purging *p = place ? calloc(1, sizeof(*p)) : NULL;
	struct folder_upkeep u = {.error = -ENOMEM};

	if (!place)
		return;
	if (p) {
		p->connection = c;
		p->place = place;
		u.error = folder_upkeep(place->folder, on_purged, p);
	}
	if (u.error == 0) {
		control_on_gone(c, on_purging_gone, p);
		return;
	}
	control_answer(c, report_upkeep(place->config->name, &u));
	free(p);
}

/* --- lists --- */

static void answer_conflicts(struct daemon *d, struct control_connection *c, struct control_request *request)
{
	struct place *p = find_open(d, c, request);

	if (p)
		control_answer(c, report_conflicts(folder_replica(p->folder)));
}

static void answer_trash_list(struct daemon *d, struct control_connection *c, struct control_request *request)
{
	struct place *p = find_open(d, c, request);

	if (p)
		control_answer(c, report_trash(replica_store(folder_replica(p->folder))));
}

static void answer_trash_restore(struct daemon *d, struct control_connection *c, struct control_request *request)
{
	struct place *p = find_open(d, c, request);
	const char *name = text_of(request->json, "name");

	if (!p)
		return;
	control_answer(c, name ? report_restore(replica_store(folder_replica(p->folder)), name, text_of(request->json, "bucket"))
			       : control_error(EXIT_USAGE, "name what is to be restored"));
	folder_scan(p->folder, false);
}

/* It writes, and may wait for others that do: not on the loop's thread. */
struct retiring {
	struct control_connection *connection; /* NULL: gone */
	char *member;
	json_t *answer;
};

static void run_retire(struct replica *r, void *data)
{
	struct retiring *x = data;

	x->answer = report_retire(r, x->member);
}

static void on_retired(bool done, void *data)
{
	struct retiring *x = data;

	if (!done)
		x->answer = control_error(EXIT_HALTED, "the folder was closed meanwhile");
	if (x->connection)
		control_answer(x->connection, x->answer);
	else
		json_decref(x->answer);
	free(x->member);
	free(x);
}

static void on_retiring_gone(void *data)
{
	((struct retiring *)data)->connection = NULL;
}

static void answer_retire(struct daemon *d, struct control_connection *c, struct control_request *request)
{
	struct place *p = find_open(d, c, request);
	const char *member = text_of(request->json, "member");
	struct retiring *x;
	int r;

	if (!p)
		return;
	if (!member) {
		control_answer(c, control_error(EXIT_USAGE, "name the member that is to be retired"));
		return;
	}
	x = calloc(1, sizeof(*x));
	r = x && (x->member = strdup(member)) ? 0 : -ENOMEM;
	if (r == 0) {
		x->connection = c;
		r = folder_call(p->folder, run_retire, on_retired, x);
	}
	if (r == 0) {
		control_on_gone(c, on_retiring_gone, x);
		return;
	}
	if (x)
		free(x->member);
	free(x);
	control_answer(c, control_error(EXIT_FAILED, "%s: cannot retire %s now: %s", p->config->name, quoted(member), file_error_text(r)));
}

/* --- sessions on streams that clients bring --- */

#define TURN_WAIT_NS (45 * CLOCK_NS_PER_S) /* well below the time after which one is taken for dead who says nothing */
#define BUSY_TEXT "busy: %u sessions are open there, as many as may be (max_sessions): try again in a minute"

struct serving {
	struct serving *next;
	struct control_connection *connection; /* NULL: gone */
	struct place *place;
	json_t *request;
	uid_t uid;
	int fds[2]; /* the stream, until a session has it; -1 */
	struct turn turn;
	bool too_late; /* it waits no longer for its turn */
	struct folder_session *session;
	struct link_limits limits; /* below the folder's */
	bool mode_fixed, sends, takes;
};

static void serving_free(struct serving *s)
{
	struct daemon *d = s->place->daemon;
	struct serving **at = &d->servings;

	while (*at != s)
		at = &(*at)->next;
	*at = s->next;
	turns_end(&d->turns, &s->turn);
	json_decref(s->request);
	close_keep(s->fds[0]);
	close_keep(s->fds[1]);
	free(s);
}

static void on_serving_gone(void *data)
{
	struct serving *s = data;

	s->connection = NULL;
	if (s->session)
		folder_session_abort(s->session);
	else
		serving_free(s);
}

static struct folder *serving_choose(const struct message_open *open, bool *ret_sends, bool *ret_takes, uint16_t *ret_code, char *why,
	size_t n, void *data)
{
	struct serving *s = data;

	if (s->too_late) {
		*ret_code = MESSAGE_FAIL_BUSY;
		snprintf(why, n, BUSY_TEXT, s->place->daemon->turns.max);
		return NULL;
	}
	if (!s->place->folder) { /* it was halted and closed since the stream came */
		*ret_code = MESSAGE_FAIL_HALTED;
		snprintf(why, n, "%s", s->place->reason);
		return NULL;
	}
	*ret_sends = s->mode_fixed ? s->sends : open->sends;
	*ret_takes = s->mode_fixed ? s->takes : open->takes;
	if (open->confirmed)
		folder_scan(s->place->folder, true);
	return s->place->folder;
}

static void on_serving_ended(struct folder_session *session, const struct session_status *st, void *data)
{
	struct serving *s = data;
	char in[16], out[16], paths[48], summary[512];
	int code = ui_exit_of_session(st);
	json_t *answer;

	(void)session;
	s->session = NULL;
	if (st->failed)
		log_warning("%s: a session with %s ended: %s", s->place->config->name, st->peer_name,
			*st->text ? st->text : file_error_text(st->error));
	if (s->connection) {
		snprintf(summary, sizeof(summary), "%s: %s changed here, received %s, sent %s",
			st->in_sync ? "in sync" : "not everything is in sync", ui_count(st->applied, "path", paths), ui_bytes(st->bytes_in, in),
			ui_bytes(st->bytes_out, out));
		if (st->failed)
			answer = control_error(code, "%s", *st->text ? st->text : file_error_text(st->error));
		else
			answer = json_pack("{s:i, s:b, s:s, s:i}", "exit", code, "in_sync", st->in_sync, "summary", summary, "rounds",
				(int)st->round);
		control_answer(s->connection, answer);
	}
	serving_free(s);
}

static int hex_digit(char c)
{
	return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* Pairs of lower-case digits; NULL: none. *ret is heap. */
static int decode_hex(const char *hex, uint8_t **ret, size_t *ret_n)
{
	size_t n = hex ? strlen(hex) : 0;
	cleanup_free uint8_t *bytes = malloc(n / 2 + 1);

	if (!bytes)
		return -ENOMEM;
	if (n % 2)
		return -EINVAL;
	for (size_t i = 0; i < n; i += 2) {
		int high = hex_digit(hex[i]), low = hex_digit(hex[i + 1]);

		if (high < 0 || low < 0)
			return -EINVAL;
		bytes[i / 2] = (uint8_t)(high << 4 | low);
	}
	*ret = steal(bytes);
	*ret_n = n / 2;
	return 0;
}

static void serving_failed(struct serving *s, json_t *why)
{
	control_answer(s->connection, why);
	serving_free(s);
}

/* A stream from a client of `syncctl serve`. */
static int serving_accept(struct serving *s)
{
	cleanup_free uint8_t *initial = NULL;
	char peer[64];
	struct folder_accept_options accept = {
		.loop = s->place->daemon->loop,
		.fd_in = s->fds[0],
		.fd_out = s->fds[1],
		.peer = peer,
		.owners = may_set_owners(s->uid),
		.here = json_is_true(json_object_get(s->request, "here")),
		.limits = &s->limits,
		.choose = serving_choose,
		.ended = on_serving_ended,
		.data = s,
	};
	int r = decode_hex(text_of(s->request, "initial"), &initial, &accept.n_initial);

	if (r < 0)
		return r;
	s->mode_fixed = json_object_get(s->request, "sends") != NULL;
	s->sends = json_is_true(json_object_get(s->request, "sends"));
	s->takes = json_is_true(json_object_get(s->request, "takes"));
	snprintf(peer, sizeof(peer), "a client of user %u", (unsigned)s->uid);
	accept.initial = initial;
	return folder_accept(&s->session, &accept);
}

static uint64_t limit_of(const json_t *o, const char *key)
{
	json_int_t rate = json_integer_value(json_object_get(o, key));

	return rate > 0 && rate <= (json_int_t)CONFIG_RATE_MAX ? (uint64_t)rate : 0;
}

/* A stream to a far `syncctl serve` that a client has started. */
static int serving_connect(struct serving *s)
{
	const json_t *j = s->request;
	bool sends = json_is_true(json_object_get(j, "sends")), takes = json_is_true(json_object_get(j, "takes"));
	bool confirmed = json_is_true(json_object_get(j, "confirmed"));
	struct folder_session_options o = {
		.peer = text_of(j, "peer"),
		.client = true,
		.sends = sends,
		.takes = takes,
		.confirmed = confirmed,
		.revert = json_is_true(json_object_get(j, "revert")),
		.here = json_is_true(json_object_get(j, "here")),
		.owners = may_set_owners(s->uid),
		.open = {.place = (char *)text_of(j, "place"),
			.create = true,
			.algorithm = (uint8_t)json_integer_value(json_object_get(j, "algorithm")),
			.sends = takes,
			.takes = sends,
			.confirmed = confirmed},
		.address = text_of(j, "address"),
		.anew = json_is_true(json_object_get(j, "anew")),
		.fd_in = s->fds[0],
		.fd_out = s->fds[0],
		.limits = &s->limits,
		.ended = on_serving_ended,
		.data = s,
	};

	link_limits_init(&s->limits, limit_of(j, "limit_up"), limit_of(j, "limit_down"), &s->place->limits);
	folder_scan(s->place->folder, o.confirmed);
	return folder_connect(s->place->folder, &s->session, &o);
}

static bool is_attach(const struct serving *s)
{
	return s->fds[1] < 0;
}

/* It has its turn, or has waited too long. */
static void serving_begin(struct serving *s)
{
	struct place *p = s->place;
	int r;

	if (is_attach(s) && s->too_late) {
		serving_failed(s, control_error(EXIT_LOCKED, BUSY_TEXT, p->daemon->turns.max));
		return;
	}
	if (is_attach(s) && (!p->folder || folder_halted(p->folder))) { /* since it came */
		serving_failed(s, control_error(EXIT_HALTED, "%s is halted: see syncctl status", p->config->name));
		return;
	}
	r = is_attach(s) ? serving_connect(s) : serving_accept(s);
	if (r < 0)
		serving_failed(s, control_error(EXIT_FAILED, "cannot begin the session: %s", file_error_text(r)));
	else
		s->fds[0] = s->fds[1] = -1;
}

static bool may_begin(struct serving *s)
{
	if (s->turn.state == TURN_WAITS && clock_monotonic_ns() - s->turn.since_ns > TURN_WAIT_NS) {
		s->too_late = true;
		turns_end(&s->place->daemon->turns, &s->turn);
		return true;
	}
	return turns_ask(&s->place->daemon->turns, &s->turn, clock_monotonic_ns());
}

/* Takes the stream over, and begins, or waits. */
static void serving_add(struct place *p, struct control_connection *c, struct control_request *request)
{
	struct serving *s = calloc(1, sizeof(*s));

	if (!s) {
		control_answer(c, control_error(EXIT_FAILED, "out of memory"));
		return;
	}
	*s = (struct serving){.connection = c, .place = p, .request = json_incref(request->json), .uid = request->uid, .fds = {-1, -1}};
	for (size_t i = 0; i < request->n_fds; i++) {
		s->fds[i] = request->fds[i];
		request->fds[i] = -1;
	}
	link_limits_init(&s->limits, 0, 0, &p->limits);
	s->next = p->daemon->servings;
	p->daemon->servings = s;
	control_on_gone(c, on_serving_gone, s);
	if (may_begin(s))
		serving_begin(s);
}

void daemon_serve_waiting(struct daemon *d)
{
	for (struct serving *s = d->servings, *next; s; s = next) {
		next = s->next;
		if (daemon_gives_way(d, &s->turn, s->session))
			folder_session_finish(s->session);
		else if (!s->session && may_begin(s))
			serving_begin(s);
	}
}

static void answer_serve(struct daemon *d, struct control_connection *c, struct control_request *request)
{
	struct place *p = find_open(d, c, request);

	if (!p)
		return;
	if (request->n_fds == 2)
		serving_add(p, c, request);
	else
		control_answer(c, control_error(EXIT_USAGE, "serve needs two descriptors"));
}

/* A client brings a stream to a far `syncctl serve` that it has started. */
static void answer_attach(struct daemon *d, struct control_connection *c, struct control_request *request)
{
	struct place *p = find_open(d, c, request);
	const json_t *j = request->json;

	if (!p)
		return;
	if (request->n_fds != 1 || !text_of(j, "peer") || !text_of(j, "place"))
		control_answer(c, control_error(EXIT_USAGE, "attach needs a stream, a peer and a place"));
	else if (json_is_true(json_object_get(j, "sends")) && json_is_true(json_object_get(j, "takes")) && place_reverts(p))
		control_answer(c, control_error(EXIT_USAGE, "%s undoes what does not come from its peers: use --mode pull or push",
					  p->config->name));
	else
		serving_add(p, c, request);
}

static const struct {
	const char *name;
	void (*answer)(struct daemon *d, struct control_connection *c, struct control_request *request);
} commands[] = {
	{"status", answer_status},
	{"scan", answer_scan},
	{"flush", answer_flush},
	{"purge", answer_purge},
	{"confirm", answer_confirm},
	{"conflicts", answer_conflicts},
	{"trash-list", answer_trash_list},
	{"trash-restore", answer_trash_restore},
	{"retire", answer_retire},
	{"serve", answer_serve},
	{"attach", answer_attach},
};

void daemon_handle(struct control_connection *c, struct control_request *request, void *data)
{
	struct daemon *d = data;
	const char *name = text_of(request->json, "command");

	for (size_t i = 0; i < ARRAY_SIZE(commands) && name; i++)
		if (strcmp(commands[i].name, name) == 0) {
			commands[i].answer(d, c, request);
			return;
		}
	control_answer(c, control_error(EXIT_USAGE, "the daemon does not know this command; is it of another version?"));
}
