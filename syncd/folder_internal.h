/*
 * syncd/folder_internal.h — what a folder's parts share: folder.c (opening, halting, closing), folder_errand.c (scans and other
 * work), folder_session.c, folder_status.c (problems, status). Nobody else includes it.
 */
#ifndef SYNCD_FOLDER_INTERNAL_H
#define SYNCD_FOLDER_INTERNAL_H

#define HASH_NONFATAL_OOM 1 /* then the element has no table */
#include <uthash.h>

#include "base/clock.h"
#include "base/pace.h"
#include "syncd/folder.h"
#include "syncd/schedule.h"
#include "syncd/watch.h"
#include "tombstones/observe.h"

struct dirty {
	UT_hash_handle hh;
	bool whole;	   /* all below, not only the path and its children */
	/* Wall clock: what was recorded before is hashed, whatever its stamp says; 0: it is not. INT64_MAX: before its scan begins, as a whole
	 * one that comes in between may record what it has not read (SCAN_AGED). */
	int64_t distrust_ns;
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
	bool unread;		/* a scan could not read it, or somebody was writing it: */
	int64_t unread_ns, again_ns; /* since when, and when it is looked at again (0: not); by the monotonic clock */
	bool distrusted;	/* as dirty.distrust_ns */
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
	bool lost; /* there was no memory for what a scan found, or for a watch */
	int unwatched; /* why a directory cannot be watched, for another reason; the first one's */
	char *unwatched_path;
	uint64_t settled; /* changes that recovery finished or undid */
	bool asked; /* somebody waits for this upkeep */
	struct folder_upkeep upkeep;
	char damage[INDEX_CHECK_TEXT_BYTES];
};

/* When something is tried again, and how long it is until then; 0: there is nothing. */
struct folder_again {
	int64_t at_ns, pause_ns;
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
	struct folder_again check; /* what a round could not put in place */
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
	int64_t watch_at_ns; /* without a watch: when it is tried again */
	uv_timer_t settle_timer, root_timer, rescan_timer, upkeep_timer;
	unsigned handles;
	struct dirty *dirty; /* uthash */
	int64_t first_dirty_ns;
	bool scan_wanted, scan_confirmed, recover_wanted, upkeep_wanted, verify_wanted;
	int64_t verified_ns; /* when the index was read whole last */
	bool scanned; /* a whole scan is over */
	int64_t retry_ns; /* an errand failed: none begins before */
	struct folder_again recover; /* what recovery could not look at */
	unsigned failures; /* of scans and recoveries in a row */
	struct errand *errand;
	atomic_bool cancel;
	struct pace pace; /* of the whole scan that runs */
	struct folder_session *sessions;
	bool halted, closing;
	bool damaged; /* the index is, or can't be written: halted for good */
	char halt_reason[512];
	uint64_t held;
	char held_at[256];
	struct schedule_recent deleted; /* they count together for the budget */
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

/* folder.c */
void folder_halt(struct folder *f, const char *reason);
bool folder_check_root(struct folder *f); /* halts, or goes on */
void folder_doubt_index(struct folder *f, int error); /* -EBADMSG: have it read whole; -ENOTRECOVERABLE: halt */
/* Where the damaged index was kept; "" if it was not. */
void folder_kept_path(const struct store *store, const struct folder_options *o, char *ret, size_t n);

/* folder_errand.c */
int folder_start_watch(struct folder *f); /* 0 also where inotify can't be used, which is told */
void folder_watch_again(struct folder *f); /* try, where it could not be used */
void folder_mark_dirty(struct folder *f, const char *path, bool whole, int64_t wait_ms);
void folder_distrust(struct folder *f, const char *path); /* hash it, whatever its stamp says */
void folder_start_errand(struct folder *f); /* begin the next one, if none runs */
void folder_cancel_asked(struct folder *f);

/* folder_session.c */
void folder_changed(struct folder *f, const struct folder_session *except); /* the index was: tell the sessions */
void folder_recover(struct folder *f, const struct session *but); /* once all sessions have ended, which they are told, but this one */

/* folder_status.c; origin: the session, or NULL: a scan. Returns the problem, the folder's; NULL: too many, or no memory */
struct problem *folder_note_problem(struct folder *f, const char *path, const char *why, const char *todo, const void *origin,
	unsigned generation);
void folder_note_scan(struct folder *f, const struct told *t, bool distrusted);
void folder_clear_problem(struct folder *f, const char *path);
void folder_expire_problems(struct folder *f, const void *origin, unsigned generation);
void folder_forget_problem(struct folder *f, struct problem *p);
uint64_t folder_count_local(const struct folder *f); /* changes that are to be undone */
uint64_t folder_count_unread(const struct folder *f); /* left out of rounds for now */
/* What could not be read is dirty again, at longer and longer intervals: each as long as it has been so by then. */
void folder_read_again(struct folder *f);

#endif
