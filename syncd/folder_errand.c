/*
 * syncd/folder_errand.c — what is dirty, and the errands of a folder: scans, recovery, upkeep, reading the index, what others want
 * to have done. One at a time, on a worker thread; their outcome is dealt with on the loop's.
 */
#include "syncd/folder_internal.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/log.h"
#include "base/pool.h"
#include "syncd/ui.h"
#include "syncd/watch.h"
#include "tombstones/purge.h"
#include "tombstones/trash.h"
#include "transfer/partial.h"

#define COALESCE_MS 2	      /* between an event and its scan, so that a burst is one scan */
#define BURST_PATHS 100	      /* more dirty paths than this: wait for quiet, so that deletions are counted together */
#define BURST_QUIET_MS 200
#define BURST_MAX_MS 2000
#define WRITING_MAX_NS (10 * CLOCK_NS_PER_S) /* a file that is written without end is looked at this often */
#define RETRY_NS (5 * CLOCK_NS_PER_S)
#define WATCH_AGAIN_NS (10 * CLOCK_NS_PER_S)

static void on_settle(uv_timer_t *timer);

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

/* distrust_ns: as dirty.distrust_ns; the later one counts. Where there is no memory all is scanned. */
static void mark_dirty(struct folder *f, const char *path, bool whole, int64_t wait_ms, int64_t distrust_ns)
{
	int64_t now = clock_monotonic_ns();
	struct dirty *d = NULL;

	HASH_FIND_STR(f->dirty, path, d);
	if (!d) {
		bool first = !f->dirty;

		d = calloc(1, sizeof(*d) + strlen(path) + 1);
		if (d) {
			strcpy(d->path, path);
			HASH_ADD_STR(f->dirty, path, d);
		}
		if (!d || !d->hh.tbl) {
			free(d);
			f->scan_wanted = true;
			return;
		}
		if (first)
			f->first_dirty_ns = now;
	}
	if (f->scanned) /* what is changed now is looked at after a scan that runs: it is not to be slow any more */
		atomic_store(&f->pace.hurry, true);
	d->whole = d->whole || whole;
	if (d->distrust_ns < distrust_ns)
		d->distrust_ns = distrust_ns;
	if (!d->first_ns)
		d->first_ns = now;
	d->due_ns = wait_ms ? now + wait_ms * CLOCK_NS_PER_MS : 0;
	if (d->due_ns > d->first_ns + WRITING_MAX_NS)
		d->due_ns = d->first_ns + WRITING_MAX_NS;
	arm_settle(f);
}

void folder_mark_dirty(struct folder *f, const char *path, bool whole, int64_t wait_ms)
{
	mark_dirty(f, path, whole, wait_ms, 0);
}

void folder_distrust(struct folder *f, const char *path)
{
	mark_dirty(f, path, false, 0, INT64_MAX);
}

static void on_watch_told(enum watch_what what, const char *path, void *data)
{
	struct folder *f = data;

	switch (what) {
	case WATCH_SETTLED:
		folder_mark_dirty(f, path, false, 0);
		break;
	case WATCH_CLOSED: /* what stores through a mapping left shows in no stamp */
		folder_distrust(f, path);
		break;
	case WATCH_WRITING:
		folder_mark_dirty(f, path, false, f->options.settle_ms);
		break;
	case WATCH_SUBTREE:
		folder_mark_dirty(f, path, true, 0);
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
		folder_note_problem(f, path, "cannot be watched: the limit of inotify watches is reached; changes below are found by scans only",
			"raise it: sysctl fs.inotify.max_user_watches", f->watch, 0);
		break;
	case WATCH_ROOT_GONE:
		folder_check_root(f);
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

int folder_start_watch(struct folder *f)
{
	int r = watch_new(&f->watch, on_watch_told, f);

	if (r < 0) {
		if (!f->watch_at_ns)
			log_warning("%s: cannot use inotify (%s): changes are found by scans only, until it can be used%s", f->name,
				file_error_text(r), r == -EMFILE ? "; raise fs.inotify.max_user_instances" : "");
		f->watch_at_ns = clock_monotonic_ns() + WATCH_AGAIN_NS;
		return 0;
	}
	r = uv_poll_init(f->options.loop, &f->watch_poll, watch_fd(f->watch));
	if (r < 0) {
		watch_free(steal(f->watch));
		return r;
	}
	f->watch_poll.data = f;
	f->handles++;
	return uv_poll_start(&f->watch_poll, UV_READABLE, on_watch);
}

void folder_watch_again(struct folder *f)
{
	/* a scan that runs looks at whether there is a watch */
	if (f->watch || f->errand || f->closing || f->halted || clock_monotonic_ns() < f->watch_at_ns)
		return;
	f->watch_at_ns = clock_monotonic_ns() + WATCH_AGAIN_NS;
	if (folder_start_watch(f) < 0 || !f->watch)
		return;
	log_info("%s: inotify can be used by now", f->name);
	folder_scan(f, false); /* which adds the watches */
}

/* --- errands --- */

static void told_by_scan(const char *path, enum scan_what what, int error, void *data)
{
	struct errand *e = data;
	struct told *t = malloc(sizeof(*t) + strlen(path) + 1);

	if (!t) {
		e->lost = true;
		return;
	}
	t->what = what;
	t->error = error;
	strcpy(t->path, path);
	t->next = e->told;
	e->told = t;
}

static void add_watch(int dirfd, const char *path, void *data)
{
	struct errand *e = data;
	int r = e->folder->watch ? watch_directory(e->folder->watch, dirfd, path) : 0;

	if (r == -ENOMEM)
		e->lost = true;
	else if (r < 0 && r != -ENOENT && !e->unwatched && (e->unwatched_path = strdup(path)))
		e->unwatched = r;
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

	e->error = paths ? pool_new(&scan.pool, pool_threads_usual()) : -ENOMEM;
	if (e->error) {
		free(paths);
		return;
	}
	if (e->whole) {
		paths[n++] = (struct observe_path){.path = ""};
		scan.pace = &f->pace;
		pool_set_pace(scan.pool, scan.pace);
		pace_begin(scan.pace);
	} else {
		for (struct dirty *d = e->dirty; d; d = d->hh.next) {
			if (d->distrust_ns == INT64_MAX)
				d->distrust_ns = clock_wall_ns();
			paths[n++] = (struct observe_path){.path = d->path, .shallow = !d->whole, .rehash_before_ns = d->distrust_ns};
		}
	}
	e->error = observe_run(&options, &scan, paths, n, add_watch, e, &e->result);
	if (!e->error && e->lost && !f->options.watch) /* who watches goes on, and scans again */
		e->error = -ENOMEM;
	pool_free(scan.pool);
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
	unsigned partials;
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
		u->error = partial_expire(replica_store(f->replica), policy.now_ns, &partials);
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
		e->error = apply_recover(e->folder->replica, &e->settled);
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
	free(e->unwatched_path);
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
	if (e->local == OBSERVE_LEAVE && folder_count_local(f))
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
			folder_forget_problem(f, p);
	}
}

/* Whoever waits in front of a command is told in the end. */
static void end_sessions(struct folder *f, int error)
{
	bool full = error == -ENOSPC || error == -EDQUOT;
	char text[512];

	snprintf(text, sizeof(text), "what is in %s cannot be recorded: %s; nothing is lost: %s, and run it again", f->path,
		file_error_text(error), full ? "make room" : "see to that");
	for (struct folder_session *s = f->sessions; s; s = s->next) {
		session_fail(link_session(s->link), full ? MESSAGE_FAIL_SPACE : MESSAGE_FAIL_INTERNAL, error, text);
		link_kick(s->link);
	}
}

static void errand_failed(struct folder *f, const char *what, int error)
{
	f->retry_ns = clock_monotonic_ns() + RETRY_NS;
	f->failures++;
	if (!f->options.tries || !f->sessions)
		log_error("%s: %s failed: %s; it is tried again", f->name, what, file_error_text(error));
	else if (f->failures >= f->options.tries)
		end_sessions(f, error);
}

/* What was looked at is dirty once more: all of it, or what stamps say nothing of; a whole scan does for the rest. */
static void mark_again(struct folder *f, const struct errand *e, bool distrusted, int64_t wait_ms)
{
	struct dirty *d, *next;

	HASH_ITER(hh, e->dirty, d, next) {
		if (!distrusted || d->distrust_ns)
			mark_dirty(f, d->path, d->whole, wait_ms, d->distrust_ns);
	}
}

static void scan_over(struct folder *f, struct errand *e)
{
	if (e->error == -ECANCELED)
		return;
	if (e->error == STORE_ROOT_CHANGED && !folder_check_root(f))
		return;
	if (e->error != 0) {
		f->scan_wanted = true;
		f->scan_confirmed = f->scan_confirmed || e->confirmed;
		mark_again(f, e, true, RETRY_NS / CLOCK_NS_PER_MS);
		errand_failed(f, "scan", e->error);
		return;
	}
	f->failures = 0;
	f->scan_generation++;
	for (struct told *t = e->told; t; t = t->next) {
		struct dirty *d = NULL;
		int64_t distrust_ns;

		HASH_FIND_STR(e->dirty, t->path, d);
		distrust_ns = d ? d->distrust_ns : 0;
		folder_note_scan(f, t, distrust_ns != 0);
		if (t->what == SCAN_UNSETTLED)
			mark_dirty(f, t->path, false, f->options.settle_ms, distrust_ns);
	}
	if (e->whole)
		folder_expire_problems(f, NULL, f->scan_generation);
	else
		expire_looked_at(f, e);
	if (e->unwatched)
		log_warning("%s: %s cannot be watched (%s): what changes in it is found by the next scan of all", f->name,
			quoted(e->unwatched_path), file_error_text(e->unwatched));
	note_held(f, e);
	schedule_recent(&f->deleted, e->result.counted, clock_monotonic_ns());
	if (e->result.raced) {
		if (e->whole)
			f->scan_wanted = true;
		mark_again(f, e, false, 20);
	}
	if (e->whole)
		whole_scan_over(f, e);
	if (e->lost) {
		f->scan_wanted = true;
		errand_failed(f, "scan", -ENOMEM);
	}
	f->undo_waits = e->result.waiting && e->result.undone;
	if (e->result.events || e->result.undone)
		folder_changed(f, NULL);
}

static void upkeep_over(struct folder *f, const struct folder_upkeep *result)
{
	void (*over)(const struct folder_upkeep *, void *) = f->upkept;

	f->upkept = NULL;
	if (over)
		over(result, f->upkept_data);
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
	folder_halt(f, reason);
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
	char freed[16];

	(void)status;
	f->errand = NULL;
	if (e->type == ERRAND_VERIFY)
		verify_over(f, e);
	else
		folder_doubt_index(f, e->type == ERRAND_UPKEEP ? e->upkeep.error : e->error);
	if (e->type == ERRAND_SCAN) {
		scan_over(f, e);
	} else if (e->type == ERRAND_RECOVER) {
		f->recover_wanted = e->error < 0;
		f->scan_wanted = true;
		if (e->error < 0)
			errand_failed(f, "recovery", e->error);
		else if (e->settled)
			log_info("%s: finished or undid %" PRIu64 " changes that were interrupted", f->name, e->settled);
	} else if (e->type == ERRAND_CALL) {
		call_over(f, true);
	} else if (e->type == ERRAND_UPKEEP) {
		if (e->upkeep.purged || e->upkeep.freed)
			log_info("%s: upkeep: %" PRIu64 " deletions forgotten, %s of trash removed", f->name, e->upkeep.purged,
				ui_bytes(e->upkeep.freed, freed));
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
	folder_start_errand(f);
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
	e->recent = schedule_recent(&f->deleted, 0, now);
	if (f->scan_wanted) {
		e->whole = true;
		e->confirmed = f->scan_confirmed;
		f->scan_wanted = f->scan_confirmed = false;
	}
	HASH_ITER(hh, f->dirty, d, next) {
		if (e->whole ? d->distrust_ns != 0 : d->due_ns > now)
			continue; /* a whole scan trusts stamps; what is not trusted comes after it */
		HASH_DEL(f->dirty, d);
		HASH_ADD_STR(e->dirty, path, d);
		if (!d->hh.tbl) {
			free(d);
			e->whole = true;
		}
	}
	if (e->whole) /* what was changed since the last one waits for this one, too: as part of it, or until it is over */
		atomic_store(&f->pace.hurry, f->scanned && (e->dirty || f->dirty));
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
void folder_start_errand(struct folder *f)
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
	folder_start_errand(timer->data);
}

void folder_scan(struct folder *f, bool confirmed)
{
	if (f->closing)
		return;
	f->scan_wanted = true;
	f->scan_confirmed = f->scan_confirmed || confirmed;
	folder_start_errand(f);
}

void folder_when_settled(struct folder *f, void (*settled)(void *data), void *data)
{
	f->settled = settled;
	f->settled_data = data;
	folder_start_errand(f);
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
	folder_start_errand(f);
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
	folder_start_errand(f);
	return 0;
}

/* Who waits for something is told that it will not come. A call that runs ends by itself. */
void folder_cancel_asked(struct folder *f)
{
	upkeep_over(f, &(struct folder_upkeep){.error = -ECANCELED});
	if (!f->errand || f->errand->type != ERRAND_CALL)
		call_over(f, false);
}
