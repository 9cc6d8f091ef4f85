/*
 * transfer/session.h — one session between two replicas: bytes in, bytes and jobs out. It owns no loop, no descriptor and no
 * clock; its caller moves bytes, runs jobs (on any thread) and tells the time, so that many replicas can be driven in one
 * process from one seed.
 *
 *   loop:   session_input(bytes read)          session_output → bytes to write → session_output_consumed
 *           while (session_next_job) run it somewhere, then session_job_done     session_tick(now) at least each second
 *
 * Rounds (DESIGN §6): both say HELLO (root, K); equal roots join K; else the side with the greater replica id walks, both
 * exchange the rows that differ, each decides and applies on its own side, joins the other's K of HELLO for all but the
 * paths it skipped, and says DONE. When both are done the session is live: a change begins the next round. Where the roots were
 * equal, HELLO takes along what changed since (PUSH), and the other side deals with that before its own HELLO; so does a client's
 * first HELLO, where its address was met before.
 *
 * Lanes: at most one job of each lane runs at a time: SESSION_LANE_PLAN (decide, stage), SESSION_LANE_APPLY (apply, join K),
 * SESSION_LANE_READ (content for the peer). Nothing here waits for a lane: reading goes on whatever they do. What a peer can
 * make us hold is bounded: rows by the PAIRs outstanding, content by what we asked for, requests by SESSION_REQUESTS_MAX and
 * SESSION_NAMES_MAX.
 */
#ifndef TRANSFER_SESSION_H
#define TRANSFER_SESSION_H

#include "merkle/ignore.h"
#include "tombstones/replica.h"
#include "transfer/apply.h"
#include "transfer/message.h"

#define SESSION_OUTPUT_HIGH (2 * 1024 * 1024) /* above it no content is read for the peer */
#define SESSION_WINDOW_BYTES (8 * 1024 * 1024) /* content asked for and not yet written */
#define SESSION_REQUESTS_MAX 8192	       /* of the peer's, waiting; more end the session */
#define SESSION_NAMES_MAX 262144	       /* names of pieces in such requests */
#define SESSION_BATCH_OFFERS 512
#define SESSION_BATCHES_MAX 4
#define SESSION_BACKLOG_MAX 4096 /* offers not yet in a batch, above which no further PAIR is dealt with */
#define SESSION_PAIRS_MAX 4	 /* PAIRs of one walk without their ROWS */
#define SESSION_SPLIT_BYTES (16 * 1024 * 1024) /* a content with more missing has a batch of its own */
#define SESSION_CHUNKS_MAX (4 * 1024 * 1024) /* of contents under way, about 150 bytes each; a file of more is not taken */
#define SESSION_ROUNDS_MAX 64	 /* of a one-shot session */
#define SESSION_KEEPALIVE_NS (INT64_C(15) * 1000000000)
#define SESSION_IDLE_NS (INT64_C(120) * 1000000000)

struct session;
struct session_job;

enum session_state {
	SESSION_OPENING,   /* waiting for OPEN (server) or the peer's GREET; for SESSION_IDLE_NS, whatever else it says */
	SESSION_PREPARING, /* greeted; waiting for the local scan: session_ready */
	SESSION_ROUND,
	SESSION_LIVE,	   /* the round is over */
	SESSION_ENDED,
};

enum session_lane { SESSION_LANE_PLAN, SESSION_LANE_APPLY, SESSION_LANE_READ, SESSION_LANES };

/* Called from within session_… calls, on the caller's thread. All may be NULL. */
struct session_host {
	/* Server: the client's OPEN. Answer now or later with session_attach or session_fail. */
	void (*opened)(struct session *s, const struct message_open *open, void *data);
	/* Both know each other. `rescan`: the folder's algorithm changed, rows were dropped. Call session_ready when the
	 * index is up to date with the disk. */
	void (*greeted)(struct session *s, bool rescan, void *data);
	/* Something happened at a path (applied, kept aside, skipped …). */
	void (*tell)(struct session *s, const char *path, enum decide_action action, enum apply_result result, int error, void *data);
	/* A path is not as the index says: scan it. */
	void (*dirty)(struct session *s, const char *path, void *data);
	/* A path's content may not be what our record says, whatever its stamp is, as after a power loss that left new bytes under old
	 * times: the peer asks for it again in a later round, or it was found to be another when it was to be replaced. Hash it. */
	void (*doubted)(struct session *s, const char *path, void *data);
	/* Our index was changed by this session: tell other sessions. */
	void (*changed)(struct session *s, void *data);
	/* A round is over. */
	void (*round_over)(struct session *s, bool in_sync, void *data);
	/* How many deletions that were seen on our disk wait to be confirmed? (NULL: none) */
	uint64_t (*held)(struct session *s, void *data);
	/* How many paths on our disk could not be read when they were looked at, or were being written, and are left out of this
	 * round? (NULL: none) */
	uint64_t (*unread)(struct session *s, void *data);
	/* A batch failed as a whole: intents may be left. Recover before anything else happens to the replica. */
	void (*broken)(struct session *s, int error, void *data);
	void *data;
};

struct session_options {
	bool client;
	struct replica *replica;    /* client: given; server: by session_attach */
	const struct ignore *ignore; /* not owned; may be NULL */
	bool sends, takes;	    /* our side's mode */
	bool live;		    /* client: stay connected after the first time in sync */
	bool confirmed;		    /* deletions beyond the budget are confirmed */
	bool preserve_owner;
	bool plain;		    /* the peer is on this machine: what is sent is not compressed */
	bool revert;		    /* where our side only takes: what was changed here alone is undone, to trash */
	int64_t grace_ns;
	struct decide_policy policy;
	const char *name;	    /* what this machine is called */
	struct message_open open;   /* client: what to ask of the far side (copied) */
	const char *address;	    /* client: where the far side is, to be remembered once it was met (copied; NULL: not) */
	unsigned threads;	    /* that a job may make, and ends again, where it has much to hash; 0: none */
	/* Where the caller moves bytes slowly, less is to lie before them: what waits for long holds up all that comes after it. */
	size_t output_high;	    /* 0: SESSION_OUTPUT_HIGH */
	size_t window_bytes;	    /* 0: SESSION_WINDOW_BYTES */
	struct session_host host;
};

int session_new(struct session **ret, const struct session_options *options);
void session_free(struct session *s); /* no job may be running */

/* Server, after opened(): the replica to serve, with our mode. Takes no ownership. */
int session_attach(struct session *s, struct replica *replica, const struct ignore *ignore, bool sends, bool takes);
/* Server, before session_attach: what session_options say on the client's side. */
void session_adopt(struct session *s, int64_t grace_ns, bool preserve_owner, bool confirmed, const struct decide_policy *policy);
/* The local scan is done (also: nothing to scan). */
int session_ready(struct session *s);
/* The index was changed by others (a scan, another session). */
int session_changed(struct session *s);
/* Begin a round even if nothing seems to have changed: the periodic root check. */
int session_check(struct session *s);
/* A person confirmed held deletions: the next round applies them. */
int session_confirm(struct session *s);
/* End in order: BYE after what is going on now. */
int session_finish(struct session *s);
/* End at once with a message for the peer. */
void session_fail(struct session *s, enum message_fail_code code, int error, const char *text);

/* < 0: the session is over (session_error says why); output may hold a last FAIL to be sent. */
int session_input(struct session *s, const void *p, size_t n);
/* The peer closed its end. Expected only after BYE or FAIL. */
void session_input_end(struct session *s);
const uint8_t *session_output(const struct session *s, size_t *ret_n);
int session_output_consumed(struct session *s, size_t n);
int session_tick(struct session *s, int64_t monotonic_ns);

struct session_job *session_next_job(struct session *s); /* NULL: none now */
void session_job_run(struct session_job *job);		  /* on any thread */
int session_job_done(struct session *s, struct session_job *job); /* frees it */

struct session_status {
	enum session_state state;
	bool in_sync;	     /* roots were equal at the end of the last round */
	bool failed;	     /* ended by an error */
	int error;	     /* negative errno; 0 */
	uint16_t peer_code;  /* enum message_fail_code of the peer's FAIL, or ours */
	bool stuck;	     /* the last round changed nothing and the roots still differ */
	uint32_t round;
	uint64_t peer_replica;
	const char *peer_name;	  /* "" until greeted */
	const char *peer_version;
	const char *text;	  /* why it ended, for people; "" if it was we who ended it in order */
	struct hash root, peer_root;
	uint64_t bytes_in, bytes_out;
	uint64_t content_in, content_out; /* bytes of files' content received and sent */
	uint64_t applied, conflicts, skipped, held; /* skipped, held: of the last round */
	uint64_t peer_skipped, peer_held;
	uint64_t full, peer_full; /* of the skipped: the disk has no room for them */
	uint64_t differences; /* where our side only takes: paths that show another thing here, after the last round */
	uint64_t pending;	  /* paths being dealt with now */
	bool policy_differs, ignore_differs;
};
void session_status(const struct session *s, struct session_status *ret); /* texts live as long as the session */

#endif
