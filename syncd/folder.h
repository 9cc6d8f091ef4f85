/*
 * syncd/folder.h — one folder at work on a libuv loop: its replica, scans, watch, sessions, upkeep. Used by the daemon for each
 * configured folder, and by one-shot `reconcile` and `serve` for the one they hold.
 *
 *   watch ─▶ dirty paths ─(settle)─▶ scan (worker) ─▶ events ─▶ sessions told ─▶ a round with each peer
 *
 * A folder is: scanning until the first whole scan is over; then ready; halted when its root is not what it was (nothing
 * is concluded, nothing applied, until it is itself again), or when its index was found damaged: it has to be closed and
 * opened again, which rebuilds it. Problems are kept with what, since when, why and what to do (P12).
 */
#ifndef SYNCD_FOLDER_H
#define SYNCD_FOLDER_H

#include <jansson.h>
#include <uv.h>

#include "syncd/link.h"

#define FOLDER_RESCAN_MS INT64_C(3600000) /* where nothing is configured */

struct folder;

struct folder_options {
	uv_loop_t *loop;
	const char *name;	/* for messages: the configured name, or the path */
	const char *path;
	const char *state_dir;
	const char *holder;	/* for the lock: the control socket's path, or NULL */
	bool create;		/* make the replica where there is none */
	enum hash_algorithm algorithm; /* for a created one; 0: hash_algorithm_usual */
	bool watch;
	bool confirmed;		/* the first scan may record deletions beyond the budget */
	unsigned tries;		/* sessions end when a scan or recovery failed this many times in a row; 0: never, they wait */
	bool revert;		/* takes only: what is changed here is undone, once there is somebody to fetch from */
	bool preserve_owner;
	int64_t settle_ms;	/* quiet time of a file being written */
	int64_t rescan_interval_ms; /* 0: no periodic scan */
	int64_t grace_ms, member_expiry_ms, trash_keep_ms;
	uint64_t trash_max_bytes;
	struct pace_limits *pace; /* of whole scans; not owned; NULL: none */
	struct decide_policy policy; /* prefer: owned by the caller, lives as long as the folder */
};

/* enum store_outcome or < 0; a line for people in why (n bytes) when not 0. Recovers what a crash left. */
int folder_open(struct folder **ret, const struct folder_options *options, char *why, size_t n);
/* Scans, sessions and handles are ended; done() is called when the folder is closed and freed. */
void folder_close(struct folder *f, void (*done)(void *data), void *data);

const char *folder_name(const struct folder *f);
const char *folder_path(const struct folder *f);
struct replica *folder_replica(const struct folder *f);
bool folder_ready(const struct folder *f);  /* the first whole scan is over */
bool folder_halted(const struct folder *f);
const char *folder_halt_reason(const struct folder *f);

/* Scan the whole root now (again). `confirmed`: deletions that were held may be recorded. */
void folder_scan(struct folder *f, bool confirmed);
/* A person confirmed what is held: ours by a scan, the peers' by a round. */
void folder_confirm(struct folder *f);
/* Called when nothing is dirty and no scan runs: after folder_scan, once. */
void folder_when_settled(struct folder *f, void (*settled)(void *data), void *data);

struct folder_upkeep {
	int error;	  /* 0; -ECANCELED: the folder was halted or closed */
	uint64_t purged;  /* tombstones */
	uint64_t freed;	  /* bytes of trash */
	uint64_t left;	  /* tombstones that are kept */
};
/* Purge tombstones and expire trash as the options say, now, after what is under way, not only at intervals. over() is told
 * once, later. -EBUSY: somebody waits for one already; -ENOENT: no peer was met yet, there is nothing; -ECANCELED as above. */
int folder_upkeep(struct folder *f, void (*over)(const struct folder_upkeep *result, void *data), void *data);

/* Have run() called on a worker thread when no scan, recovery or upkeep is under way, and over() on the loop's afterwards; run()
 * was not called (done = false) where the folder was closed first. -EBUSY: another call is under way; -ECANCELED: closing or
 * halted; -ENOENT: it has not met anybody. */
int folder_call(struct folder *f, void (*run)(struct replica *r, void *data), void (*over)(bool done, void *data), void *data);

/* --- sessions --- */

struct folder_session;

struct folder_session_options {
	const char *peer;	/* for messages */
	bool client;
	bool sends, takes;	/* our side */
	bool live;		/* client: stay connected */
	bool confirmed;
	bool revert;		/* undo what was recorded here and is not the peer's; implied by the folder's */
	bool owners;		/* who brought the stream may have owners and setuid bits set, where the folder does so */
	bool here;		/* the far side is on this machine: no link is to be spared */
	struct message_open open; /* client. create is not asked for where another replica was met at `address`, but with `anew` */
	const char *address;	  /* client: where the far side is, as endpoint_address has it; NULL: not to be remembered */
	bool anew;		  /* a person says that it is to be made anew */
	int fd_in, fd_out;	/* owned from success on */
	struct link_limits *limits; /* not owned: until ended() is over; NULL: none */
	/* The session ended; `status` is valid during the call. The session is freed afterwards. */
	void (*ended)(struct folder_session *s, const struct session_status *status, void *data);
	/* A round is over (NULL: not wanted). */
	void (*round_over)(struct folder_session *s, bool in_sync, void *data);
	void *data;
};

int folder_connect(struct folder *f, struct folder_session **ret, const struct folder_session_options *options);
void folder_session_finish(struct folder_session *s); /* in order */
void folder_session_abort(struct folder_session *s);
void folder_session_check(struct folder_session *s);  /* begin a round now (the periodic root check) */
void folder_session_confirm(struct folder_session *s);
struct session *folder_session_core(const struct folder_session *s);
const char *folder_session_peer(const struct folder_session *s);

/* Server side: accept a session on a stream; `choose` is called with the client's OPEN and returns the folder that it
 * is for (already open, or opened now), its mode, or NULL after writing the reason into why. */
struct folder_accept_options {
	uv_loop_t *loop;
	int fd_in, fd_out;
	const void *initial; /* what was read from fd_in before; copied */
	size_t n_initial;
	const char *peer;
	bool owners, here;   /* as in folder_session_options */
	struct link_limits *limits;
	struct folder *(*choose)(const struct message_open *open, bool *ret_sends, bool *ret_takes, uint16_t *ret_code, char *why, size_t n,
		void *data);
	void (*ended)(struct folder_session *s, const struct session_status *status, void *data);
	void *data;
};
int folder_accept(struct folder_session **ret, const struct folder_accept_options *options);

/* --- telling --- */

/* Paths that are not in sync now, and why: at most `limit`. A JSON array of {path, why, since, todo}. */
json_t *folder_problems_json(const struct folder *f, size_t limit);
json_t *folder_status_json(struct folder *f); /* owned by the caller */
size_t folder_problem_count(const struct folder *f);
uint64_t folder_held(const struct folder *f); /* deletions of ours that wait to be confirmed */

#endif
