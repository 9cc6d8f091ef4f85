/*
 * syncd/folder.c — one folder at work: opened, watched over, closed.
 *
 * On the loop's thread: what is dirty, which sessions there are, what is told. On worker threads, one errand of the folder at a
 * time: scans, recovery, upkeep. Sessions have their own jobs; the replica's writer lock orders all that write.
 *
 * A replica that has not met any peer is scanned only once the first has greeted: the folder's id and hash may be the peer's.
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
#include "syncd/watch.h"

#define ROOT_CHECK_MS 1000
#define VERIFY_PAUSE_NS (10 * 60 * CLOCK_NS_PER_S) /* a peer that talks nonsense can't keep us busy with reading the index */
#define AGAIN_FIRST_NS (10 * CLOCK_NS_PER_S) /* until what recovery could not look at, or a round not put in place, is tried again; each time twice as long */
#define AGAIN_MAX_NS (10 * 60 * CLOCK_NS_PER_S)
#define UPKEEP_FIRST_MS (30 * 1000) /* the peers have told by then what they know */
#define UPKEEP_MS (10 * 60 * 1000)

/* --- halting --- */

void folder_halt(struct folder *f, const char *reason)
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
	folder_cancel_asked(f);
}

bool folder_check_root(struct folder *f)
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
	folder_halt(f, reason);
	return false;
}

/* Something that came from the index, or from a peer, contradicts itself: is it the index? */
void folder_doubt_index(struct folder *f, int error)
{
	int64_t now = clock_monotonic_ns();

	if (error == -ENOTRECOVERABLE) {
		f->damaged = true;
		folder_halt(f, "the index could not be written; nothing is lost, and it goes on when the folder is opened again");
	}
	if (error != -EBADMSG || (f->verified_ns && now - f->verified_ns < VERIFY_PAUSE_NS))
		return;
	f->verified_ns = now;
	f->verify_wanted = true;
}

/* --- timers --- */

/* Is it time to try? At longer and longer intervals, from the first time on that this is asked. */
static bool is_time(struct folder_again *a)
{
	int64_t now = clock_monotonic_ns(), pause = a->pause_ns;

	if (now < a->at_ns)
		return false;
	a->pause_ns = !pause ? AGAIN_FIRST_NS : 2 * pause < AGAIN_MAX_NS ? 2 * pause : AGAIN_MAX_NS;
	a->at_ns = now + a->pause_ns;
	return pause > 0;
}

/* Sessions end for it. A one-shot command has just tried. */
static void recover_again(struct folder *f)
{
	if (!f->options.holder || !replica_unfinished(f->replica, "")) {
		f->recover = (struct folder_again){0};
		return;
	}
	if (!f->recover_wanted && !f->halted && is_time(&f->recover)) {
		folder_recover(f, NULL);
		folder_start_errand(f);
	}
}

/* What a round could not put in place; but for what waits for a person. */
static void check_again(struct folder_session *s)
{
	struct session_status st;

	if (!s->options.live)
		return;
	session_status(folder_session_core(s), &st);
	if (st.state != SESSION_LIVE)
		return;
	if (st.skipped <= st.held)
		s->check = (struct folder_again){0};
	else if (is_time(&s->check))
		folder_session_check(s);
}

static void on_root_timer(uv_timer_t *timer)
{
	struct folder *f = timer->data;

	folder_check_root(f);
	if (clock_jumped(&f->clock, clock_wall_ns(), clock_boot_ns()))
		replica_doubt(f->replica, REPLICA_CLOCK_JUMPED, clock_monotonic_ns());
	recover_again(f);
	for (struct folder_session *s = f->sessions; s; s = s->next)
		check_again(s);
	if (f->options.watch) {
		folder_watch_again(f);
		folder_read_again(f);
	}
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
	folder_start_errand(f);
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
	case -EPROTONOSUPPORT:
		snprintf(why, n,
			"the state of %s is of a format that this version does not know: a newer one wrote it; nothing is changed; use that one, or, to "
			"begin anew with what is there now, move %s away",
			o->path, PATH_STATE_NAME);
		return;
	case STORE_OVERLAP:
		snprintf(why, n, "%s lies inside another folder, or another one inside it; folders must not overlap", o->path);
		return;
	default:
		snprintf(why, n, "cannot open %s: %s", o->path, file_error_text(r));
	}
}

void folder_kept_path(const struct store *store, const struct folder_options *o, char *ret, size_t n)
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
	folder_kept_path(store, o, kept, sizeof(kept));
	log_warning("%s: the index was damaged (%s) and is rebuilt from what is on disk, as a new replica; nothing is deleted, and what "
		    "was deleted since the last round with a peer may come back; the damaged index was %s%s",
		o->name, store_rebuilt(store)->why, *kept ? "kept as " : "removed, as the disk is nearly full", kept);
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
		.algorithm = options->algorithm ? options->algorithm : hash_algorithm_usual(),
		.state_dir = options->state_dir,
		.holder = options->holder,
	};
	struct store *store = NULL;
	struct folder *f;
	uint64_t settled;
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
	f->pace.limits = options->pace;
	f->scan_confirmed = options->confirmed;
	f->name = strdup(options->name);
	f->path = strdup(store_path(store));
	tell_opened(store, options);
	if (f->name && f->path) {
		r = replica_open(&f->replica, store);
	} else {
		store_close(store);
		r = -ENOMEM;
	}
	if (r == 0)
		r = apply_recover(f->replica, &settled);
	if (r == 0 && settled)
		log_info("%s: finished or undid %" PRIu64 " changes that were under way when syncd was stopped", f->name, settled);
	if (r == 0)
		r = ignore_new(&f->ignore);
	if (r == 0 && options->watch)
		r = folder_start_watch(f);
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
		folder_forget_problem(f, p);
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
		atomic_store(&f->pace.hurry, true);
		folder_cancel_asked(f);
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

/* --- what others ask --- */

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

uint64_t folder_held(const struct folder *f)
{
	return f->held;
}
