/* syncd/folder_session.c — the sessions of a folder: what they tell, and what they are told. */
#include "syncd/folder_internal.h"

#include <errno.h>
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/log.h"
#include "base/pool.h"
#include "tombstones/places.h"

#define TRIM_PATHS 1000

static const char *todo_of_result(enum apply_result result)
{
	switch (result) {
	case APPLY_WAIT:
		return "waits for the other side to keep its version aside; nothing to do";
	case APPLY_BUSY:
		return "close the program that has it open for writing";
	case APPLY_BLOCKED:
		return "something that is ignored or not synced is inside: move or remove it";
	case APPLY_HELD:
		return "confirm the deletions with: syncctl confirm FOLDER, or reconcile --confirm-deletions";
	case APPLY_NOT_HELD:
		return "this disk can't hold it, or it is ignored here; other replicas have it";
	default:
		return "is tried again at the next round";
	}
}

/* --- sessions --- */

static void session_end_in_folder(struct folder_session *s)
{
	struct folder *f = s->folder;
	struct folder_session **at;

	if (!f)
		return;
	for (at = &f->sessions; *at != s; at = &(*at)->next)
		;
	*at = s->next;
}

static void on_link_ended(struct link *l, void *data)
{
	struct folder_session *s = data;
	struct folder *f = s->folder;
	struct session_status status;
	char text[1024];

	session_status(link_session(l), &status);
	session_end_in_folder(s);
	if (f && status.failed && (status.error == -EPIPE || status.error == -ETIMEDOUT))
		replica_doubt(f->replica, REPLICA_SESSION_LOST, clock_monotonic_ns());
	if (f && status.failed)
		folder_doubt_index(f, status.error);
	if (s->was_met && status.peer_code == MESSAGE_FAIL_NO_FOLDER) {
		snprintf(text, sizeof(text), "%s; it was there before, so nothing was made: bring it back, or, to fill it anew, run: "
			"syncctl reconcile --new %s %s", status.text, quoted(folder_path(f)), quoted(s->options.address));
		status.text = text;
	}
	if (s->options.ended)
		s->options.ended(s, &status, s->options.data);
	if (f) /* only now: a one-shot command says them as it ends */
		folder_expire_problems(f, s, s->generation + 1);
	link_free(l);
	free(s->peer);
	free((char *)s->options.address);
	free(s);
	if (!f)
		return;
	if (f->closing)
		folder_close(f, f->closed, f->closed_data);
	else
		folder_start_errand(f); /* a recovery may have waited for it */
}

static void on_greeted(struct session *core, bool rescan, void *data)
{
	struct folder_session *s = data;
	struct folder *f = s->folder;
	bool left; /* changes that can be undone now */

	s->greeted = true;
	left = s->options.takes && (folder_count_local(f) || (f->errand && f->errand->local == OBSERVE_LEAVE));
	if (f->scanned && !rescan && !left && !f->scan_wanted && !(f->errand && f->errand->whole)) {
		session_ready(core);
		return;
	}
	s->waits_for_scan = true;
	if (!(f->errand && f->errand->type == ERRAND_SCAN && f->errand->whole) || rescan || left)
		folder_scan(f, false);
}

static void on_tell(struct session *core, const char *path, enum decide_action action, enum apply_result result, int error, void *data)
{
	struct folder_session *s = data;
	char why[512];

	(void)core;
	log_debug("%s: %s, of %s: %s, %s", s->folder->name, quoted(path), s->peer ? s->peer : "a peer", decide_action_name(action),
		apply_result_name(result));
	if (result == APPLY_DONE || result == APPLY_NONE) {
		folder_clear_problem(s->folder, path);
		return;
	}
	if (result == APPLY_FAILED && error == -ESTALE)
		snprintf(why, sizeof(why), "changed at %s while it was fetched", s->peer);
	else if (result == APPLY_FAILED)
		snprintf(why, sizeof(why), "could not be put in place: %s", file_error_text(error));
	else
		snprintf(why, sizeof(why), "%s", apply_result_name(result));
	folder_note_problem(s->folder, path, why,
		error == -ENOSPC || error == -EDQUOT ? "make room on this disk; it is tried again at the next round"
						     : todo_of_result(result),
		s, s->generation);
}

static void on_dirty(struct session *core, const char *path, void *data)
{
	struct folder_session *s = data;

	(void)core;
	folder_mark_dirty(s->folder, path, false, 50);
}

static void on_doubted(struct session *core, const char *path, void *data)
{
	struct folder_session *s = data;

	(void)core;
	log_debug("%s: %s may not be what was recorded: it is read anew", s->folder->name, quoted(path));
	folder_distrust(s->folder, path);
}

void folder_changed(struct folder *f, const struct folder_session *except)
{
	struct folder_session *s, *next;

	for (s = f->sessions; s; s = next) {
		next = s->next;
		if (s == except)
			continue;
		session_changed(link_session(s->link));
		link_kick(s->link);
	}
}

static void on_changed(struct session *core, void *data)
{
	struct folder_session *s = data;

	(void)core;
	folder_changed(s->folder, s);
}

static void on_round_over(struct session *core, bool in_sync, void *data)
{
	struct folder_session *s = data;
	struct session_status status;

	session_status(core, &status);
	if (status.applied - s->trimmed_at > TRIM_PATHS) { /* a big round leaves many free pieces */
		s->trimmed_at = status.applied;
		malloc_trim(0);
	}
	folder_expire_problems(s->folder, s, s->generation);
	s->generation++;
	if (s->folder->undo_waits)
		folder_scan(s->folder, false);
	if (s->options.round_over)
		s->options.round_over(s, in_sync, s->options.data);
}

static uint64_t on_held(struct session *core, void *data)
{
	struct folder_session *s = data;

	(void)core;
	return s->folder ? s->folder->held : 0;
}

static uint64_t on_unread(struct session *core, void *data)
{
	struct folder_session *s = data;

	(void)core;
	return s->folder ? folder_count_unread(s->folder) : 0;
}

static void on_broken(struct session *core, int error, void *data)
{
	struct folder_session *s = data;
	struct folder *f = s->folder;

	log_error("%s: a batch could not be put in place: %s", f->name, file_error_text(error));
	folder_recover(f, core);
	folder_doubt_index(f, error);
}

void folder_recover(struct folder *f, const struct session *but)
{
	f->recover_wanted = true;
	for (struct folder_session *other = f->sessions; other; other = other->next) {
		if (link_session(other->link) == but)
			continue;
		session_fail(link_session(other->link), MESSAGE_FAIL_BUSY, -EBUSY, "the folder is being recovered on that side: try again");
		link_kick(other->link);
	}
}

static struct session_options core_options(struct folder_session *s, const struct folder *f)
{
	struct session_options o = {
		.threads = pool_threads_usual(),
		.host = {.greeted = on_greeted,
			.tell = on_tell,
			.dirty = on_dirty,
			.doubted = on_doubted,
			.changed = on_changed,
			.round_over = on_round_over,
			.held = on_held,
			.unread = on_unread,
			.broken = on_broken,
			.data = s},
	};

	if (f) {
		o.replica = f->replica;
		o.ignore = f->ignore;
		o.grace_ns = f->options.grace_ms * CLOCK_NS_PER_MS;
		o.preserve_owner = f->options.preserve_owner;
		o.revert = f->options.revert;
		o.policy = f->options.policy;
		o.name = f->options.name;
	}
	return o;
}

static const char *machine_name(char *ret, size_t n)
{
	if (gethostname(ret, n) < 0)
		ret[0] = 0;
	ret[n - 1] = 0;
	return ret;
}

static int was_met(struct folder *f, const char *address, bool *ret)
{
	struct places places = {0};
	struct index_txn *t = NULL;
	int r = index_begin_read(replica_index(f->replica), &t);

	if (r < 0)
		return r;
	r = places_read(t, &places);
	index_abort(t);
	*ret = r == 0 && places_find(&places, address);
	places_deinit(&places);
	return r;
}

int folder_connect(struct folder *f, struct folder_session **ret, const struct folder_session_options *options)
{
	struct folder_session *s = calloc(1, sizeof(*s));
	struct link_options link = {.loop = f->options.loop, .fd_in = options->fd_in, .fd_out = options->fd_out, .limits = options->limits};
	char name[MESSAGE_NAME_BYTES_MAX];
	int r;

	if (!s)
		return -ENOMEM;
	if (f->closing || f->recover_wanted) { /* recovery waits until no session is left */
		free(s);
		return -EBUSY;
	}
	s->folder = f;
	s->options = *options;
	if (options->address && !options->anew) {
		r = was_met(f, options->address, &s->was_met);
		if (r < 0) {
			free(s);
			return r;
		}
	}
	s->peer = strdup(options->peer);
	s->options.address = options->address ? strdup(options->address) : NULL;
	s->since_ns = clock_wall_ns();
	link.session = core_options(s, f);
	link.session.client = options->client;
	link.session.sends = options->sends;
	link.session.takes = options->takes;
	link.session.live = options->live;
	link.session.confirmed = options->confirmed;
	link.session.revert = link.session.revert || options->revert;
	link.session.preserve_owner = link.session.preserve_owner && options->owners;
	link.session.plain = options->here;
	link.session.open = options->open;
	link.session.open.create = options->open.create && !s->was_met;
	link.session.address = options->address;
	link.session.name = machine_name(name, sizeof(name));
	link.ended = on_link_ended;
	link.data = s;
	r = s->peer && (s->options.address || !options->address) ? link_new(&s->link, &link) : -ENOMEM;
	if (r < 0) {
		free(s->peer);
		free((char *)s->options.address);
		free(s);
		return r;
	}
	s->next = f->sessions;
	f->sessions = s;
	*ret = s;
	if (f->scanned && !f->scan_wanted && !folder_count_local(f) && store_joined(replica_store(f->replica))) {
		session_ready(link_session(s->link)); /* HELLO goes out with OPEN and GREET */
		link_kick(s->link);
	} else if (store_joined(replica_store(f->replica))) {
		s->waits_for_scan = true;
	}
	return 0;
}

static void on_opened(struct session *core, const struct message_open *open, void *data)
{
	struct folder_session *s = data;
	bool sends = true, takes = true;
	uint16_t code = MESSAGE_FAIL_NO_FOLDER;
	char why[MESSAGE_TEXT_BYTES_MAX] = "";
	struct folder *f = s->accept.choose(open, &sends, &takes, &code, why, sizeof(why), s->accept.data);

	if (f && f->halted) {
		code = MESSAGE_FAIL_HALTED;
		snprintf(why, sizeof(why), "%s", f->halt_reason);
		f = NULL;
	}
	if (f && (f->closing || f->recover_wanted)) {
		code = MESSAGE_FAIL_BUSY;
		snprintf(why, sizeof(why), "the folder is being closed or recovered there: try again");
		f = NULL;
	}
	if (!f) {
		session_fail(core, (enum message_fail_code)code, -ENOENT, why);
		return;
	}
	if (f->options.revert)
		takes = false; /* what others bring would stay, and not be the peer's */
	s->folder = f;
	s->options.takes = takes;
	s->options.live = open->live;
	s->next = f->sessions;
	f->sessions = s;
	session_adopt(core, f->options.grace_ms * CLOCK_NS_PER_MS, f->options.preserve_owner && s->accept.owners, open->confirmed, &f->options.policy);
	if (session_attach(core, f->replica, f->ignore, sends, takes) == 0 && f->scanned && !f->scan_wanted &&
			!(f->errand && f->errand->whole))
		session_ready(core);
	else if (store_joined(replica_store(f->replica)))
		s->waits_for_scan = true;
}

int folder_accept(struct folder_session **ret, const struct folder_accept_options *options)
{
	struct folder_session *s = calloc(1, sizeof(*s));
	struct link_options link = {.loop = options->loop, .fd_in = options->fd_in, .fd_out = options->fd_out, .limits = options->limits};
	char name[MESSAGE_NAME_BYTES_MAX];
	int r;

	if (!s)
		return -ENOMEM;
	s->accept = *options;
	s->options.ended = options->ended;
	s->options.data = options->data;
	s->peer = strdup(options->peer);
	s->since_ns = clock_wall_ns();
	link.session = core_options(s, NULL);
	link.session.plain = options->here;
	link.session.host.opened = on_opened;
	link.session.name = machine_name(name, sizeof(name));
	link.ended = on_link_ended;
	link.data = s;
	*ret = s;
	r = s->peer ? link_new(&s->link, &link) : -ENOMEM;
	if (r < 0) {
		free(s->peer);
		free(s);
		*ret = NULL;
		return r;
	}
	if (options->n_initial) {
		session_input(link_session(s->link), options->initial, options->n_initial);
		link_kick(s->link);
	}
	return 0;
}

void folder_session_finish(struct folder_session *s)
{
	session_finish(link_session(s->link));
	link_kick(s->link);
}

void folder_session_abort(struct folder_session *s)
{
	link_abort(s->link);
}

void folder_session_check(struct folder_session *s)
{
	session_check(link_session(s->link));
	link_kick(s->link);
}

void folder_session_confirm(struct folder_session *s)
{
	session_confirm(link_session(s->link));
	link_kick(s->link);
}

struct session *folder_session_core(const struct folder_session *s)
{
	return link_session(s->link);
}

const char *folder_session_peer(const struct folder_session *s)
{
	return s->peer;
}

void folder_confirm(struct folder *f)
{
	for (struct folder_session *s = f->sessions; s; s = s->next)
		folder_session_confirm(s);
	folder_scan(f, true);
}
