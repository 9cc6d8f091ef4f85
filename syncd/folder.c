/*
 * syncd/folder.c — one folder at work.
 *
 * On the loop's thread: what is dirty, which sessions there are, what is told. On worker threads, one errand of the folder at a
 * time: scans, recovery, upkeep. Sessions have their own jobs; the replica's writer lock orders all that write.
 *
 * A replica that has not met any peer is scanned only once the first has greeted: the folder's id and hash may be the peer's.
 */
#include "syncd/folder.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <uthash.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/log.h"
#include "syncd/report.h"
#include "syncd/watch.h"
#include "tombstones/observe.h"
#include "tombstones/places.h"
#include "tombstones/purge.h"
#include "tombstones/trash.h"

#define COALESCE_MS 5	      /* between an event and its scan, so that a burst is one scan */
#define BURST_PATHS 100	      /* more dirty paths than this: wait for quiet, so that deletions are counted together */
#define BURST_QUIET_MS 200
#define BURST_MAX_MS 2000
#define WRITING_MAX_NS (10 * CLOCK_NS_PER_S) /* a file that is written without end is looked at this often */
#define ROOT_CHECK_MS 1000
#define VERIFY_PAUSE_NS (10 * 60 * CLOCK_NS_PER_S) /* a peer that talks nonsense can't keep us busy with reading the index */
#define RETRY_NS (5 * CLOCK_NS_PER_S)
#define UPKEEP_FIRST_MS (30 * 1000) /* the peers have told by then what they know */
#define UPKEEP_MS (10 * 60 * 1000)
#define PROBLEMS_MAX 10000
#define TRIM_PATHS 1000
#define RECENT_NS (60 * CLOCK_NS_PER_S) /* deletions of the last minute count together for the budget */

struct dirty {
	UT_hash_handle hh;
	bool whole;	   /* all below, not only the path and its children */
	int64_t first_ns;  /* when it was marked first */
	int64_t due_ns;	   /* not before: still being written */
	char path[];
};

struct problem {
	UT_hash_handle hh;
	char *why;
	const char *todo;	/* static */
	int64_t since_ns;	/* wall clock */
	const void *origin;	/* the session, or NULL: a scan */
	bool local;		/* a change that is to be undone */
	unsigned generation;
	char path[];
};

enum errand_type { ERRAND_SCAN, ERRAND_RECOVER, ERRAND_UPKEEP, ERRAND_VERIFY, ERRAND_CALL };

/* What somebody else wants to have done as an errand. */
struct call {
	void (*run)(struct replica *r, void *data); /* NULL: nothing */
	void (*over)(bool done, void *data);
	void *data;
};

struct told {
	struct told *next;
	enum scan_what what;
	int error;
	char path[];
};

struct errand {
	uv_work_t request;
	struct folder *folder;
	enum errand_type type;
	int error;
	bool whole;	    /* the whole root */
	bool confirmed;
	enum observe_local local;
	struct dirty *dirty; /* what is scanned */
	uint64_t recent;     /* deletions of the last minute */
	struct observe_result result;
	struct told *told;
	uint64_t intents;
	bool asked; /* somebody waits for this upkeep */
	struct folder_upkeep upkeep;
	char damage[INDEX_CHECK_TEXT_BYTES];
};

struct folder_session {
	struct folder *folder; /* NULL: not chosen yet */
	struct link *link;
	struct folder_session_options options;
	struct folder_accept_options accept;
	char *peer;
	bool waits_for_scan, greeted;
	bool was_met; /* another replica was met there: none is to be made */
	unsigned generation; /* of its problems */
	uint64_t trimmed_at; /* paths applied when memory was last given back */
	int64_t since_ns;
	struct folder_session *next;
};

struct folder {
	struct folder_options options;
	char *name;
	char *path;
	struct replica *replica;
	struct ignore *ignore;
	struct watch *watch;
	uv_poll_t watch_poll;
	uv_timer_t settle_timer, root_timer, rescan_timer, upkeep_timer;
	unsigned handles;
	struct dirty *dirty; /* uthash */
	int64_t first_dirty_ns;
	bool scan_wanted, scan_confirmed, recover_wanted, upkeep_wanted, verify_wanted;
	int64_t verified_ns; /* when the index was read whole last */
	bool scanned; /* a whole scan is over */
	int64_t retry_ns; /* an errand failed: none begins before */
	struct errand *errand;
	atomic_bool cancel;
	struct folder_session *sessions;
	bool halted, closing;
	bool damaged; /* the index is: halted for good */
	char halt_reason[512];
	uint64_t held;
	char held_at[256];
	uint64_t deleted_recently;
	int64_t deleted_since_ns;
	struct problem *problems; /* uthash */
	unsigned scan_generation;
	struct scan_counts counts; /* of the last whole scan */
	int64_t last_scan_ns;
	bool overflowed;
	struct clock_watch clock;
	bool undo_waits; /* a round makes room for undoing more */
	void (*settled)(void *data);
	void *settled_data;
	void (*upkept)(const struct folder_upkeep *result, void *data);
	void *upkept_data;
	struct call call;
	void (*closed)(void *data);
	void *closed_data;
};

static void start_errand(struct folder *f);
static void call_cancel(struct folder *f);
static void upkeep_over(struct folder *f, const struct folder_upkeep *result);
static void on_settle(uv_timer_t *timer);
static void folder_changed(struct folder *f, const struct folder_session *except);

/* --- problems --- */

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

static void forget_problem(struct folder *f, struct problem *p)
{
	HASH_DEL(f->problems, p);
	free(p->why);
	free(p);
}

static void note_problem(struct folder *f, const char *path, const char *why, const char *todo, const void *origin,
	unsigned generation)
{
	struct problem *p = NULL;

	HASH_FIND_STR(f->problems, path, p);
	if (!p) {
		if (HASH_COUNT(f->problems) >= PROBLEMS_MAX || !(p = calloc(1, sizeof(*p) + strlen(path) + 1)))
			return;
		strcpy(p->path, path);
		p->since_ns = clock_wall_ns();
		HASH_ADD_STR(f->problems, path, p);
	}
	if (!p->why || strcmp(p->why, why) != 0) {
		free(p->why);
		p->why = strdup(why);
		p->since_ns = clock_wall_ns();
		if (f->options.holder) /* one-shot commands say it at their end */
			log_warning("%s: %s: %s", f->name, quoted(path), why);
	}
	p->todo = todo;
	p->local = false;
	p->origin = origin;
	p->generation = generation;
}

static void clear_problem(struct folder *f, const char *path)
{
	struct problem *p = NULL;

	HASH_FIND_STR(f->problems, path, p);
	if (p)
		forget_problem(f, p);
}

/* Problems of an origin that its newest look did not find again. */
static void expire_problems(struct folder *f, const void *origin, unsigned generation)
{
	struct problem *p, *next;

	HASH_ITER(hh, f->problems, p, next) {
		if (p->origin == origin && p->generation != generation)
			forget_problem(f, p);
	}
}

/* Local changes that wait for somebody to fetch from. */
static uint64_t count_local(const struct folder *f)
{
	uint64_t n = 0;

	for (const struct problem *p = f->problems; p; p = p->hh.next)
		n += p->local;
	return n;
}

static void note_local(struct folder *f, const char *path)
{
	struct problem *p = NULL;

	note_problem(f, path, "changed here, where changes are undone",
		"it goes to trash once a peer is connected: copy elsewhere what is to be kept", NULL, f->scan_generation);
	HASH_FIND_STR(f->problems, path, p);
	if (p)
		p->local = true;
}

static void note_scan(struct folder *f, const struct told *t)
{
	char why[256];

	if (t->error == OBSERVE_LOCAL) {
		note_local(f, t->path);
		return;
	}
	switch (t->what) {
	case SCAN_NEW:
		if (t->error == FILE_NOT_EMPTY)
			note_problem(f, t->path, "made here, where changes are undone; something in it is ignored or not synced",
				"move that elsewhere, and remove the directory", NULL, f->scan_generation);
		break;
	case SCAN_LEFT_OUT:
		note_problem(f, t->path, "left out: not a file, directory or symlink, or of another file system",
			"nothing; it is never treated as deleted", NULL, f->scan_generation);
		break;
	case SCAN_ERROR:
		snprintf(why, sizeof(why), "cannot be read: %s", file_error_text(t->error));
		note_problem(f, t->path, why, "make it readable for the user that runs syncd; nothing below counts as deleted",
			NULL, f->scan_generation);
		break;
	case SCAN_UNSETTLED:
		break; /* it is looked at again when it settles */
	default:
		break;
	}
}

/* --- halting --- */

static void halt(struct folder *f, const char *reason)
{
	if (f->halted && strcmp(f->halt_reason, reason) == 0)
		return;
	f->halted = true;
	snprintf(f->halt_reason, sizeof(f->halt_reason), "%s", reason);
	log_error("%s: halted: %s", f->name, reason);
	for (struct folder_session *s = f->sessions; s; s = s->next) {
		session_fail(link_session(s->link), MESSAGE_FAIL_HALTED, -ESTALE, "the folder is halted on that side");
		link_kick(s->link);
	}
	upkeep_over(f, &(struct folder_upkeep){.error = -ECANCELED});
	call_cancel(f);
}

static bool check_root(struct folder *f)
{
	char reason[512];

	if (store_check_root(replica_store(f->replica)) == 0) {
		if (f->halted && !f->damaged) {
			log_info("%s: the root is back, going on", f->name);
			f->halted = false;
			folder_scan(f, false);
		}
		return true;
	}
	snprintf(reason, sizeof(reason),
		"%s is not the directory that it was (unmounted, moved or replaced); nothing is deleted or changed; bring it back",
		f->path);
	halt(f, reason);
	return false;
}

/* Something that came from the index, or from a peer, contradicts itself: is it the index? */
static void doubt_index(struct folder *f, int error)
{
	int64_t now = clock_monotonic_ns();

	if (error != -EBADMSG || (f->verified_ns && now - f->verified_ns < VERIFY_PAUSE_NS))
		return;
	f->verified_ns = now;
	f->verify_wanted = true;
}

static void verify_over(struct folder *f, const struct errand *e)
{
	char reason[512];

	if (e->error < 0 && e->error != -EBADMSG)
		log_warning("%s: the index cannot be read: %s", f->name, file_error_text(e->error));
	if (e->error != -EBADMSG)
		return;
	snprintf(reason, sizeof(reason), "the index is damaged (%s); it is rebuilt from what is on disk when the folder is opened again",
		e->damage);
	f->damaged = true;
	halt(f, reason);
}

/* --- what is dirty --- */

static void arm_settle(struct folder *f)
{
	struct dirty *d, *next;
	int64_t now = clock_monotonic_ns(), due = INT64_MAX;
	int64_t ms;

	if (f->closing || !f->dirty)
		return;
	HASH_ITER(hh, f->dirty, d, next) {
		if (d->due_ns < due)
			due = d->due_ns;
		if (due <= now)
			break;
	}
	ms = due <= now ? COALESCE_MS : (due - now) / CLOCK_NS_PER_MS + COALESCE_MS;
	if (HASH_COUNT(f->dirty) > BURST_PATHS && now - f->first_dirty_ns < BURST_MAX_MS * CLOCK_NS_PER_MS)
		ms = BURST_QUIET_MS;
	else if (uv_is_active((uv_handle_t *)&f->settle_timer) && uv_timer_get_due_in(&f->settle_timer) <= (uint64_t)ms)
		return; /* a scan is coming */
	uv_timer_start(&f->settle_timer, on_settle, (uint64_t)ms, 0);
}

static void mark_dirty(struct folder *f, const char *path, bool whole, int64_t wait_ms)
{
	int64_t now = clock_monotonic_ns();
	struct dirty *d = NULL;

	HASH_FIND_STR(f->dirty, path, d);
	if (!d) {
		d = calloc(1, sizeof(*d) + strlen(path) + 1);
		if (!d) {
			f->scan_wanted = true;
			return;
		}
		strcpy(d->path, path);
		if (!f->dirty)
			f->first_dirty_ns = now;
		HASH_ADD_STR(f->dirty, path, d);
	}
	d->whole = d->whole || whole;
	if (!d->first_ns)
		d->first_ns = now;
	d->due_ns = wait_ms ? now + wait_ms * CLOCK_NS_PER_MS : 0;
	if (d->due_ns > d->first_ns + WRITING_MAX_NS)
		d->due_ns = d->first_ns + WRITING_MAX_NS;
	arm_settle(f);
}

static void on_watch_told(enum watch_what what, const char *path, void *data)
{
	struct folder *f = data;

	switch (what) {
	case WATCH_SETTLED:
		mark_dirty(f, path, false, 0);
		break;
	case WATCH_WRITING:
		mark_dirty(f, path, false, f->options.settle_ms);
		break;
	case WATCH_SUBTREE:
		mark_dirty(f, path, true, 0);
		break;
	case WATCH_OVERFLOW:
		if (!f->overflowed)
			log_warning("%s: inotify lost events (queue overflow): scanning all; raise fs.inotify.max_queued_events if this "
				    "happens often",
				f->name);
		f->overflowed = true;
		folder_scan(f, false);
		break;
	case WATCH_LIMIT:
		note_problem(f, path, "cannot be watched: the limit of inotify watches is reached; changes below are found by scans only",
			"raise it: sysctl fs.inotify.max_user_watches", f->watch, 0);
		break;
	case WATCH_ROOT_GONE:
		check_root(f);
		break;
	}
}

static void on_watch(uv_poll_t *handle, int status, int events)
{
	struct folder *f = handle->data;

	(void)status;
	(void)events;
	watch_dispatch(f->watch);
}

/* --- errands --- */

static void told_by_scan(const char *path, enum scan_what what, int error, void *data)
{
	struct errand *e = data;
	struct told *t = malloc(sizeof(*t) + strlen(path) + 1);

	if (!t)
		return;
	t->what = what;
	t->error = error;
	strcpy(t->path, path);
	t->next = e->told;
	e->told = t;
}

static void add_watch(int dirfd, const char *path, void *data)
{
	struct errand *e = data;

	if (e->folder->watch)
		watch_directory(e->folder->watch, dirfd, path);
}

static void run_scan(struct errand *e)
{
	struct folder *f = e->folder;
	size_t n = 0, count = HASH_COUNT(e->dirty);
	struct observe_path *paths = calloc(count + 1, sizeof(*paths));
	struct observe_options options = {
		.replica = f->replica,
		.local = e->local,
		.confirmed = e->confirmed,
		.recent = e->recent,
		.tell = told_by_scan,
		.tell_data = e,
	};
	struct scan_options scan = {
		.store = replica_store(f->replica),
		.ignore = f->ignore,
		.cancel = &f->cancel,
	};

	if (!paths) {
		e->error = -ENOMEM;
		return;
	}
	if (e->whole)
		paths[n++] = (struct observe_path){.path = ""};
	else
		for (struct dirty *d = e->dirty; d; d = d->hh.next)
			paths[n++] = (struct observe_path){.path = d->path, .shallow = !d->whole};
	e->error = observe_run(&options, &scan, paths, n, add_watch, e, &e->result);
	free(paths);
}

static int count_tombstones(struct folder *f, uint64_t *ret)
{
	struct index_txn *t = NULL;
	struct index_counts counts = {0};
	int r = index_begin_read(replica_index(f->replica), &t);

	if (r < 0)
		return r;
	r = index_counts(t, &counts);
	index_abort(t);
	*ret = counts.tombstones;
	return r;
}

static void run_upkeep(struct errand *e)
{
	struct folder *f = e->folder;
	const struct folder_options *o = &f->options;
	struct folder_upkeep *u = &e->upkeep;
	struct purge_policy policy = {
		.grace_ns = o->grace_ms * CLOCK_NS_PER_MS,
		.member_expiry_ns = o->member_expiry_ms * CLOCK_NS_PER_MS,
		.now_ns = clock_wall_ns(),
	};

	u->error = purge_run(f->replica, &policy, &u->purged);
	if (u->error < 0)
		return;
	replica_lock(f->replica);
	u->error = trash_expire(replica_store(f->replica), policy.now_ns, o->trash_keep_ms * CLOCK_NS_PER_MS,
		o->trash_max_bytes, &u->freed);
	replica_unlock(f->replica);
	if (u->error == 0)
		u->error = count_tombstones(f, &u->left);
}

static void run_verify(struct errand *e)
{
	replica_lock(e->folder->replica);
	e->error = store_check_index(replica_store(e->folder->replica), e->damage);
	replica_unlock(e->folder->replica);
}

static void run_errand(uv_work_t *request)
{
	struct errand *e = request->data;

	switch (e->type) {
	case ERRAND_SCAN:
		run_scan(e);
		break;
	case ERRAND_RECOVER:
		e->error = apply_recover(e->folder->replica, &e->intents);
		break;
	case ERRAND_UPKEEP:
		run_upkeep(e);
		break;
	case ERRAND_VERIFY:
		run_verify(e);
		break;
	case ERRAND_CALL:
		e->folder->call.run(e->folder->replica, e->folder->call.data);
		break;
	}
}

static void errand_free(struct errand *e)
{
	struct dirty *d, *next_dirty;

	HASH_ITER(hh, e->dirty, d, next_dirty) {
		HASH_DEL(e->dirty, d);
		free(d);
	}
	while (e->told) {
		struct told *t = e->told;

		e->told = t->next;
		free(t);
	}
	free(e);
}

static void whole_scan_over(struct folder *f, const struct errand *e)
{
	f->scanned = true;
	f->overflowed = false;
	f->counts = e->result.scan;
	f->last_scan_ns = clock_wall_ns();
	if (f->scan_confirmed)
		return; /* deletions were confirmed since this scan began: the next one records them */
	if (e->local == OBSERVE_LEAVE && count_local(f))
		return; /* they are undone before the peer's are put in place: by the scan after its greeting */
	for (struct folder_session *s = f->sessions; s; s = s->next) {
		if (!s->waits_for_scan)
			continue;
		s->waits_for_scan = false;
		session_ready(link_session(s->link));
		link_kick(s->link);
	}
}

static void note_held(struct folder *f, const struct errand *e)
{
	if (e->result.held) {
		if (f->held != e->result.held && f->options.holder)
			log_warning("%s: %" PRIu64 " deletions %s%s are held: more than %d %% of the entries are gone; if that is meant, "
				    "confirm with: syncctl confirm %s",
				f->name, e->result.held, e->result.held_at[0] ? "below " : "",
				e->result.held_at[0] ? quoted(e->result.held_at) : "overall", OBSERVE_BUDGET_PERCENT, f->name);
		f->held = e->result.held;
		snprintf(f->held_at, sizeof(f->held_at), "%s", e->result.held_at);
	} else if (e->whole) {
		f->held = 0;
	}
}

static void count_recent(struct folder *f, uint64_t deleted)
{
	int64_t now = clock_monotonic_ns();

	if (now - f->deleted_since_ns > RECENT_NS)
		f->deleted_recently = 0;
	if (deleted)
		f->deleted_since_ns = now;
	f->deleted_recently += deleted;
}

/* Did the errand look at the path, or at all below a directory above it? */
static bool was_looked_at(const struct errand *e, const char *path)
{
	for (size_t n = strlen(path);;) {
		struct dirty *d = NULL;

		HASH_FIND(hh, e->dirty, path, n, d);
		if (d && (d->whole || !path[n]))
			return true;
		if (!n)
			return false;
		while (n && path[--n] != '/')
			;
	}
}

/* Problems of scans that this scan of a few paths did not find again. */
static void expire_looked_at(struct folder *f, const struct errand *e)
{
	struct problem *p, *next;

	HASH_ITER(hh, f->problems, p, next) {
		if (!p->origin && p->generation != f->scan_generation && was_looked_at(e, p->path))
			forget_problem(f, p);
	}
}

static void scan_over(struct folder *f, struct errand *e)
{
	if (e->error == -ECANCELED)
		return;
	if (e->error == STORE_ROOT_CHANGED && !check_root(f))
		return;
	if (e->error != 0) {
		log_error("%s: scan failed: %s; it is tried again", f->name, file_error_text(e->error));
		f->scan_wanted = true;
		f->scan_confirmed = f->scan_confirmed || e->confirmed;
		f->retry_ns = clock_monotonic_ns() + RETRY_NS;
		return;
	}
	f->scan_generation++;
	for (struct told *t = e->told; t; t = t->next) {
		note_scan(f, t);
		if (t->what == SCAN_UNSETTLED)
			mark_dirty(f, t->path, false, f->options.settle_ms);
	}
	if (e->whole)
		expire_problems(f, NULL, f->scan_generation);
	else
		expire_looked_at(f, e);
	note_held(f, e);
	count_recent(f, e->result.counted);
	if (e->result.raced) {
		struct dirty *d, *next;

		if (e->whole)
			f->scan_wanted = true;
		HASH_ITER(hh, e->dirty, d, next) {
			mark_dirty(f, d->path, d->whole, 20);
		}
	}
	if (e->whole)
		whole_scan_over(f, e);
	f->undo_waits = e->result.waiting && e->result.undone;
	if (e->result.events || e->result.undone)
		folder_changed(f, NULL);
}

static void call_over(struct folder *f, bool done)
{
	struct call call = f->call;

	f->call = (struct call){0};
	if (call.over)
		call.over(done, call.data);
}

static void errand_over(uv_work_t *request, int status)
{
	struct errand *e = request->data;
	struct folder *f = e->folder;

	(void)status;
	f->errand = NULL;
	if (e->type == ERRAND_VERIFY)
		verify_over(f, e);
	else
		doubt_index(f, e->type == ERRAND_UPKEEP ? e->upkeep.error : e->error);
	if (e->type == ERRAND_SCAN) {
		scan_over(f, e);
	} else if (e->type == ERRAND_RECOVER) {
		if (e->error < 0)
			log_error("%s: recovery failed: %s; it is tried again", f->name, file_error_text(e->error));
		f->recover_wanted = e->error < 0;
		if (e->error < 0)
			f->retry_ns = clock_monotonic_ns() + RETRY_NS;
		f->scan_wanted = true;
	} else if (e->type == ERRAND_CALL) {
		call_over(f, true);
	} else if (e->type == ERRAND_UPKEEP) {
		if (e->upkeep.error < 0)
			log_warning("%s: upkeep failed: %s", f->name, file_error_text(e->upkeep.error));
		if (e->asked)
			upkeep_over(f, &e->upkeep);
	}
	errand_free(e);
	if (f->closing) {
		folder_close(f, f->closed, f->closed_data);
		return;
	}
	start_errand(f);
}

/* What becomes of what a user did: it is not undone before there is somebody to fetch from. */
static enum observe_local local_changes(const struct folder *f)
{
	if (!f->options.revert)
		return OBSERVE_RECORD;
	for (const struct folder_session *s = f->sessions; s; s = s->next)
		if (s->greeted && s->options.takes)
			return OBSERVE_UNDO;
	return OBSERVE_LEAVE;
}

static struct errand *next_errand(struct folder *f)
{
	struct errand *e = calloc(1, sizeof(*e));
	struct dirty *d, *next;
	int64_t now = clock_monotonic_ns();

	if (!e)
		return NULL;
	e->folder = f;
	e->request.data = e;
	if (f->verify_wanted) {
		f->verify_wanted = false;
		e->type = ERRAND_VERIFY;
		return e;
	}
	if (f->recover_wanted) {
		e->type = ERRAND_RECOVER;
		return e;
	}
	e->type = ERRAND_SCAN;
	e->local = local_changes(f);
	count_recent(f, 0);
	e->recent = f->deleted_recently;
	if (f->scan_wanted) {
		e->whole = true;
		e->confirmed = f->scan_confirmed;
		f->scan_wanted = f->scan_confirmed = false;
	}
	HASH_ITER(hh, f->dirty, d, next) {
		if (d->due_ns > now && !e->whole)
			continue;
		HASH_DEL(f->dirty, d);
		HASH_ADD_STR(e->dirty, path, d);
	}
	if (e->whole || e->dirty)
		return e;
	if (f->upkeep_wanted) {
		f->upkeep_wanted = false;
		e->type = ERRAND_UPKEEP;
		e->asked = f->upkept != NULL;
		return e;
	}
	if (f->call.run) {
		e->type = ERRAND_CALL;
		return e;
	}
	free(e);
	return NULL;
}

/* Begin the next errand if none runs. */
static void start_errand(struct folder *f)
{
	if (f->errand || f->closing || f->halted)
		return;
	if (f->recover_wanted && f->sessions && !f->verify_wanted)
		return; /* their jobs end first */
	if (!f->scanned && !f->scan_wanted && !f->recover_wanted && !f->verify_wanted)
		return; /* the first scan is a whole one */
	if (f->retry_ns > clock_monotonic_ns() && !f->verify_wanted) {
		uv_timer_start(&f->settle_timer, on_settle, (uint64_t)((f->retry_ns - clock_monotonic_ns()) / CLOCK_NS_PER_MS + 1), 0);
		return;
	}
	f->errand = next_errand(f);
	if (f->errand) {
		if (uv_queue_work(f->options.loop, &f->errand->request, run_errand, errand_over) < 0) {
			errand_free(f->errand);
			f->errand = NULL;
			f->scan_wanted = true;
		}
		return;
	}
	arm_settle(f);
	if (f->settled && !f->dirty) {
		void (*settled)(void *) = f->settled;

		f->settled = NULL;
		settled(f->settled_data);
	}
}

static void on_settle(uv_timer_t *timer)
{
	start_errand(timer->data);
}

static void on_root_timer(uv_timer_t *timer)
{
	struct folder *f = timer->data;

	check_root(f);
	if (clock_jumped(&f->clock, clock_wall_ns(), clock_boot_ns()))
		replica_doubt(f->replica, REPLICA_CLOCK_JUMPED, clock_monotonic_ns());
	if (f->options.holder || !store_release_asked(replica_store(f->replica)))
		return;
	/* A daemon waits for this folder: a peer that stays connected finds it there when it comes again. */
	for (struct folder_session *s = f->sessions, *next; s; s = next) {
		next = s->next;
		if (s->options.live)
			folder_session_finish(s);
	}
}

static void on_rescan(uv_timer_t *timer)
{
	folder_scan(timer->data, false);
}

static void on_upkeep(uv_timer_t *timer)
{
	struct folder *f = timer->data;

	f->upkeep_wanted = true;
	start_errand(f);
}

void folder_scan(struct folder *f, bool confirmed)
{
	if (f->closing)
		return;
	f->scan_wanted = true;
	f->scan_confirmed = f->scan_confirmed || confirmed;
	start_errand(f);
}

void folder_when_settled(struct folder *f, void (*settled)(void *data), void *data)
{
	f->settled = settled;
	f->settled_data = data;
	start_errand(f);
}

int folder_upkeep(struct folder *f, void (*over)(const struct folder_upkeep *result, void *data), void *data)
{
	if (f->upkept)
		return -EBUSY;
	if (f->closing || f->halted)
		return -ECANCELED;
	if (!store_joined(replica_store(f->replica)))
		return -ENOENT;
	f->upkept = over;
	f->upkept_data = data;
	f->upkeep_wanted = true;
	start_errand(f);
	return 0;
}

int folder_call(struct folder *f, void (*run)(struct replica *r, void *data), void (*over)(bool done, void *data), void *data)
{
	if (f->call.run)
		return -EBUSY;
	if (f->closing || f->halted)
		return -ECANCELED;
	if (!store_joined(replica_store(f->replica)))
		return -ENOENT;
	f->call = (struct call){run, over, data};
	start_errand(f);
	return 0;
}

/* One that runs ends by itself. */
static void call_cancel(struct folder *f)
{
	if (!f->errand || f->errand->type != ERRAND_CALL)
		call_over(f, false);
}

static void upkeep_over(struct folder *f, const struct folder_upkeep *result)
{
	void (*over)(const struct folder_upkeep *, void *) = f->upkept;

	f->upkept = NULL;
	if (over)
		over(result, f->upkept_data);
}

/* --- opening and closing --- */

static void explain_store(int r, const struct folder_options *o, char *why, size_t n)
{
	int64_t pid = 0;
	char *holder = NULL;

	switch (r) {
	case STORE_NO_ROOT:
		snprintf(why, n, "%s is not a directory", o->path);
		return;
	case STORE_NO_INDEX:
		snprintf(why, n, "%s has no syncd state (.syncd) where there should be one; is the disk mounted?", o->path);
		return;
	case STORE_LOCKED:
		store_lock_holder(o->path, &pid, &holder);
		snprintf(why, n, "%s is in use by process %lld", o->path, (long long)pid);
		free(holder);
		return;
	case STORE_ROOT_CHANGED:
		snprintf(why, n, "%s changed while it was opened", o->path);
		return;
	case STORE_FOREIGN:
		snprintf(why, n,
			"the state in %s belongs to another directory than %s: is it mounted? nothing is deleted anywhere; bring it back, "
			"or, to begin anew with what is there now, remove that state",
			o->state_dir ? o->state_dir : PATH_STATE_NAME, o->path);
		return;
	case STORE_DENIED:
		snprintf(why, n, "no permission to open %s or its .syncd directory", o->path);
		return;
	case STORE_READ_ONLY:
		snprintf(why, n, "%s is on a read-only file system: name a state_dir on another one", o->path);
		return;
	case STORE_FAILING:
		snprintf(why, n,
			"the index of %s was damaged and rebuilt %d times today, and is damaged again: is the disk or the memory broken? nothing "
			"is changed; it is rebuilt tomorrow, or once " REBUILD_NOTE " beside the index is removed",
			o->path, REBUILD_PER_DAY);
		return;
	case -EBADMSG:
		snprintf(why, n,
			"the state of %s is damaged so that nothing says which folder it is of; nothing is changed; to begin anew with what is "
			"there now, move %s away",
			o->path, PATH_STATE_NAME);
		return;
	case STORE_OVERLAP:
		snprintf(why, n, "%s lies inside another folder, or another one inside it; folders must not overlap", o->path);
		return;
	default:
		snprintf(why, n, "cannot open %s: %s", o->path, file_error_text(r));
	}
}

/* Where the damaged index was kept; "" if it was not. */
static void kept_path(const struct store *store, const struct folder_options *o, char *ret, size_t n)
{
	ret[0] = 0;
	if (store_damaged_kept(store))
		snprintf(ret, n, "%s%s/" REBUILD_KEPT, o->state_dir ? o->state_dir : store_path(store),
			o->state_dir ? "" : "/" PATH_STATE_NAME "/index");
}

static void tell_opened(const struct store *store, const struct folder_options *o)
{
	char kept[4096];

	if (store_copied(store))
		log_warning("%s: this folder was copied or restored with its state: it goes on as a new replica", o->name);
	if (store_identity_remade(store))
		log_warning("%s: " PATH_STATE_NAME "/identity was damaged: written anew from the index", o->name);
	if (!store_rebuilt_now(store))
		return;
	kept_path(store, o, kept, sizeof(kept));
	log_warning("%s: the index was damaged (%s) and is rebuilt from what is on disk, as a new replica; nothing is deleted, and what "
		    "was deleted since the last round with a peer may come back; the damaged index was %s%s",
		o->name, store_rebuilt(store)->why, *kept ? "kept as " : "removed, as the disk is nearly full", kept);
}

static int start_watch(struct folder *f)
{
	int r = watch_new(&f->watch, on_watch_told, f);

	if (r < 0) {
		log_warning("%s: cannot use inotify (%s): changes are found by scans only%s", f->name, file_error_text(r),
			r == -EMFILE ? "; raise fs.inotify.max_user_instances" : "");
		return 0;
	}
	r = uv_poll_init(f->options.loop, &f->watch_poll, watch_fd(f->watch));
	if (r < 0)
		return r;
	f->watch_poll.data = f;
	f->handles++;
	return uv_poll_start(&f->watch_poll, UV_READABLE, on_watch);
}

static void start_timers(struct folder *f)
{
	uv_timer_t *timers[] = {&f->settle_timer, &f->root_timer, &f->rescan_timer, &f->upkeep_timer};

	for (size_t i = 0; i < ARRAY_SIZE(timers); i++) {
		uv_timer_init(f->options.loop, timers[i]);
		timers[i]->data = f;
		f->handles++;
	}
	uv_timer_start(&f->root_timer, on_root_timer, ROOT_CHECK_MS, ROOT_CHECK_MS);
	if (f->options.rescan_interval_ms)
		uv_timer_start(&f->rescan_timer, on_rescan, (uint64_t)f->options.rescan_interval_ms,
			(uint64_t)f->options.rescan_interval_ms);
	uv_timer_start(&f->upkeep_timer, on_upkeep, UPKEEP_FIRST_MS, UPKEEP_MS);
}

int folder_open(struct folder **ret, const struct folder_options *options, char *why, size_t n)
{
	struct store_options store_options = {
		.create = options->create,
		.algorithm = options->algorithm,
		.state_dir = options->state_dir,
		.holder = options->holder,
	};
	struct store *store = NULL;
	struct folder *f;
	uint64_t intents;
	int r = store_open(&store, options->path, &store_options);

	if (r != 0) {
		explain_store(r, options, why, n);
		return r;
	}
	f = calloc(1, sizeof(*f));
	if (!f) {
		store_close(store);
		return -ENOMEM;
	}
	f->options = *options;
	f->name = strdup(options->name);
	f->path = strdup(store_path(store));
	tell_opened(store, options);
	r = replica_open(&f->replica, store);
	if (r == 0)
		r = apply_recover(f->replica, &intents);
	if (r == 0 && intents)
		log_info("%s: finished or undid %" PRIu64 " changes that were under way when syncd was stopped", f->name, intents);
	if (r == 0)
		r = ignore_new(&f->ignore);
	if (r == 0 && options->watch)
		r = start_watch(f);
	if (r < 0) {
		explain_store(r, options, why, n);
		if (f->replica)
			replica_close(f->replica);
		ignore_free(f->ignore);
		free(f->name);
		free(f->path);
		free(f);
		return r;
	}
	start_timers(f);
	f->upkeep_wanted = options->holder != NULL; /* a daemon's: after the first scan, then at intervals */
	*ret = f;
	if (store_joined(store))
		folder_scan(f, false);
	return 0;
}

static void folder_free(struct folder *f)
{
	struct dirty *d, *next_dirty;
	struct problem *p, *next_problem;

	HASH_ITER(hh, f->dirty, d, next_dirty) {
		HASH_DEL(f->dirty, d);
		free(d);
	}
	HASH_ITER(hh, f->problems, p, next_problem) {
		forget_problem(f, p);
	}
	watch_free(f->watch);
	ignore_free(f->ignore);
	replica_close(f->replica);
	free(f->name);
	free(f->path);
	if (f->closed)
		f->closed(f->closed_data);
	free(f);
}

static void on_handle_closed(uv_handle_t *handle)
{
	struct folder *f = handle->data;

	if (--f->handles == 0)
		folder_free(f);
}

static void close_handles(struct folder *f)
{
	if (uv_is_closing((uv_handle_t *)&f->root_timer))
		return;
	uv_close((uv_handle_t *)&f->settle_timer, on_handle_closed);
	uv_close((uv_handle_t *)&f->root_timer, on_handle_closed);
	uv_close((uv_handle_t *)&f->rescan_timer, on_handle_closed);
	uv_close((uv_handle_t *)&f->upkeep_timer, on_handle_closed);
	if (f->watch)
		uv_close((uv_handle_t *)&f->watch_poll, on_handle_closed);
}

/* Called again as what it waits for ends. */
void folder_close(struct folder *f, void (*done)(void *data), void *data)
{
	struct folder_session *s, *next;

	f->closed = done;
	f->closed_data = data;
	if (!f->closing) {
		f->closing = true;
		atomic_store(&f->cancel, true);
		upkeep_over(f, &(struct folder_upkeep){.error = -ECANCELED});
		call_cancel(f);
		for (s = f->sessions; s; s = next) {
			next = s->next;
			folder_session_finish(s);
		}
	}
	for (s = f->sessions; s; s = next) {
		next = s->next;
		link_abort(s->link);
	}
	if (!f->sessions && !f->errand)
		close_handles(f);
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
	expire_problems(f, s, s->generation + 1);
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
		doubt_index(f, status.error);
	if (s->was_met && status.peer_code == MESSAGE_FAIL_NO_FOLDER) {
		snprintf(text, sizeof(text), "%s; it was there before, so nothing was made: bring it back, or, to fill it anew, run: "
			"syncctl reconcile --new %s %s", status.text, quoted(folder_path(f)), quoted(s->options.address));
		status.text = text;
	}
	if (s->options.ended)
		s->options.ended(s, &status, s->options.data);
	link_free(l);
	free(s->peer);
	free((char *)s->options.address);
	free(s);
	if (!f)
		return;
	if (f->closing)
		folder_close(f, f->closed, f->closed_data);
	else
		start_errand(f); /* a recovery may have waited for it */
}

static void on_greeted(struct session *core, bool rescan, void *data)
{
	struct folder_session *s = data;
	struct folder *f = s->folder;
	bool left; /* changes that can be undone now */

	s->greeted = true;
	left = s->options.takes && (count_local(f) || (f->errand && f->errand->local == OBSERVE_LEAVE));
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
	(void)action;
	if (result == APPLY_DONE || result == APPLY_NONE) {
		clear_problem(s->folder, path);
		return;
	}
	if (result == APPLY_FAILED && error == -ESTALE)
		snprintf(why, sizeof(why), "changed at %s while it was fetched", s->peer);
	else if (result == APPLY_FAILED)
		snprintf(why, sizeof(why), "could not be put in place: %s", file_error_text(error));
	else
		snprintf(why, sizeof(why), "%s", apply_result_name(result));
	note_problem(s->folder, path, why,
		error == -ENOSPC || error == -EDQUOT ? "make room on this disk; it is tried again at the next round"
						     : todo_of_result(result),
		s, s->generation);
}

static void on_dirty(struct session *core, const char *path, void *data)
{
	struct folder_session *s = data;

	(void)core;
	mark_dirty(s->folder, path, false, 50);
}

static void folder_changed(struct folder *f, const struct folder_session *except)
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
	expire_problems(s->folder, s, s->generation);
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

static void on_broken(struct session *core, int error, void *data)
{
	struct folder_session *s = data;
	struct folder *f = s->folder;

	log_error("%s: a batch could not be put in place: %s", f->name, file_error_text(error));
	f->recover_wanted = true;
	doubt_index(f, error);
	for (struct folder_session *other = f->sessions; other; other = other->next) {
		if (link_session(other->link) == core)
			continue;
		session_fail(link_session(other->link), MESSAGE_FAIL_BUSY, -EBUSY, "the folder is being recovered on that side: try again");
		link_kick(other->link);
	}
}

static struct session_options core_options(struct folder_session *s, const struct folder *f)
{
	struct session_options o = {
		.host = {.greeted = on_greeted,
			.tell = on_tell,
			.dirty = on_dirty,
			.changed = on_changed,
			.round_over = on_round_over,
			.held = on_held,
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
	struct link_options link = {.loop = f->options.loop, .fd_in = options->fd_in, .fd_out = options->fd_out};
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
	if (f->scanned && !f->scan_wanted && !count_local(f) && store_joined(replica_store(f->replica))) {
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
	struct link_options link = {.loop = options->loop, .fd_in = options->fd_in, .fd_out = options->fd_out};
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

/* --- telling --- */

const char *folder_name(const struct folder *f)
{
	return f->name;
}

const char *folder_path(const struct folder *f)
{
	return f->path;
}

struct replica *folder_replica(const struct folder *f)
{
	return f->replica;
}

bool folder_ready(const struct folder *f)
{
	return f->scanned && !f->halted;
}

bool folder_halted(const struct folder *f)
{
	return f->halted;
}

const char *folder_halt_reason(const struct folder *f)
{
	return f->halt_reason;
}

size_t folder_problem_count(const struct folder *f)
{
	return HASH_COUNT(f->problems);
}

uint64_t folder_held(const struct folder *f)
{
	return f->held;
}

json_t *folder_problems_json(const struct folder *f, size_t limit)
{
	json_t *list = json_array();

	for (const struct problem *p = f->problems; p && limit--; p = p->hh.next)
		json_array_append_new(list, json_pack("{s:o, s:s, s:I, s:s}", "path", report_name(p->path), "why", p->why ? p->why : "",
						    "since", (json_int_t)(p->since_ns / CLOCK_NS_PER_S), "todo", p->todo));
	return list;
}

static const char *state_word(enum session_state state)
{
	static const char *const words[] = {"connecting", "preparing", "syncing", "idle", "ended"};

	return words[state];
}

static json_t *session_json(const struct folder_session *s)
{
	struct session_status st;
	char id[20], root[65];

	session_status(link_session(s->link), &st);
	snprintf(id, sizeof(id), "%016" PRIx64, st.peer_replica);
	return json_pack("{s:o, s:s, s:s, s:o, s:b, s:b, s:i, s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:b, s:b}", "peer",
		report_name(s->peer), "state", state_word(st.state), "replica", id, "name", report_name(st.peer_name), "in_sync", st.in_sync, "stuck", st.stuck,
		"round", (int)st.round, "peer_root", hash_hex(&st.peer_root, HASH_BYTES, root), "bytes_in", (json_int_t)st.bytes_in,
		"bytes_out", (json_int_t)st.bytes_out, "content_in", (json_int_t)st.content_in, "content_out",
		(json_int_t)st.content_out, "applied", (json_int_t)st.applied, "conflicts", (json_int_t)st.conflicts, "skipped",
		(json_int_t)st.skipped, "held", (json_int_t)st.held, "peer_held", (json_int_t)st.peer_held, "pending", (json_int_t)st.pending, "local_differences",
		(json_int_t)st.differences, "since",
		(json_int_t)(s->since_ns / CLOCK_NS_PER_S), "policy_differs", st.policy_differs, "ignore_differs", st.ignore_differs);
}

static const char *tier_word(const struct file_abilities *a)
{
	return a->exchange ? "exchange" : "link and rename (a reader may see a replaced name missing for microseconds)";
}

static void add_rebuilt_json(const struct folder *f, json_t *o)
{
	const struct store *store = replica_store(f->replica);
	const struct rebuild *rebuilt = store_rebuilt(store);
	char kept[4096];

	if (!rebuilt)
		return;
	kept_path(store, &f->options, kept, sizeof(kept));
	json_object_set_new(o, "index_rebuilt", json_pack("{s:I, s:s, s:o}", "when", (json_int_t)rebuilt->last_s, "why", rebuilt->why,
						      "kept", report_name(kept)));
}

static void add_index_json(struct folder *f, json_t *o)
{
	struct index_txn *t = NULL;
	struct index_counts counts = {0};
	struct hash root = {0};
	struct knowledge k = {0};
	char hex[65];

	if (index_begin_read(replica_index(f->replica), &t) < 0)
		return;
	if (tree_root(t, TREE_LIVE, &root) == 0 && index_counts(t, &counts) == 0 && replica_knowledge_read(t, &k) == 0) {
		json_object_set_new(o, "root", json_string(hash_hex(&root, HASH_BYTES, hex)));
		json_object_set_new(o, "entries", json_integer((json_int_t)counts.live));
		json_object_set_new(o, "tombstones", json_integer((json_int_t)counts.tombstones));
		json_object_set_new(o, "bytes", json_integer((json_int_t)counts.bytes));
		json_object_set_new(o, "exceptions", json_integer((json_int_t)k.n));
		json_object_set_new(o, "members", report_members(t, &k, f->replica));
	}
	knowledge_deinit(&k);
	index_abort(t);
}

/* Deletions of peers' that are held here. */
static uint64_t held_of_peers(const struct folder *f)
{
	uint64_t held = 0;

	for (const struct folder_session *s = f->sessions; s; s = s->next) {
		struct session_status st;

		session_status(link_session(s->link), &st);
		held += st.held;
	}
	return held;
}

/* From what the peers have, of whom this folder only takes; and what is to be undone. */
static uint64_t local_differences(const struct folder *f)
{
	uint64_t n = count_local(f);

	for (const struct folder_session *s = f->sessions; s; s = s->next) {
		struct session_status st;

		session_status(link_session(s->link), &st);
		n += st.differences;
	}
	return n;
}

json_t *folder_status_json(struct folder *f)
{
	struct store *store = replica_store(f->replica);
	json_t *o = json_object(), *sessions = json_array();
	char id[20];

	json_object_set_new(o, "folder", json_string(f->name));
	json_object_set_new(o, "path", report_name(f->path));
	json_object_set_new(o, "state", json_string(f->halted ? "halted" : !f->scanned ? "scanning" : "ready"));
	if (f->halted)
		json_object_set_new(o, "reason", json_string(f->halt_reason));
	snprintf(id, sizeof(id), "%016" PRIx64, store_folder_id(store));
	json_object_set_new(o, "folder_id", json_string(id));
	snprintf(id, sizeof(id), "%016" PRIx64, store_replica_id(store));
	json_object_set_new(o, "replica_id", json_string(id));
	json_object_set_new(o, "hash", json_string(hash_algorithm_name(store_algorithm(store))));
	add_index_json(f, o);
	add_rebuilt_json(f, o);
	json_object_set_new(o, "last_scan", json_integer((json_int_t)(f->last_scan_ns / CLOCK_NS_PER_S)));
	json_object_set_new(o, "scanning", json_boolean(f->errand && f->errand->type == ERRAND_SCAN));
	json_object_set_new(o, "replacing_by", json_string(tier_word(store_abilities(store))));
	if (f->watch) {
		json_object_set_new(o, "watched", json_integer((json_int_t)watch_count(f->watch)));
		json_object_set_new(o, "unwatched", json_integer((json_int_t)watch_unwatched(f->watch)));
	}
	json_object_set_new(o, "held", json_integer((json_int_t)(f->held + held_of_peers(f))));
	json_object_set_new(o, "local_differences", json_integer((json_int_t)local_differences(f)));
	json_object_set_new(o, "problems", json_integer((json_int_t)HASH_COUNT(f->problems)));
	json_object_set_new(o, "not_in_sync", folder_problems_json(f, 100));
	for (const struct folder_session *s = f->sessions; s; s = s->next)
		json_array_append_new(sessions, session_json(s));
	json_object_set_new(o, "sessions", sessions);
	return o;
}
