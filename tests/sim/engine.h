/*
 * tests/sim/engine.h — histories of whole replicas: the real index, scan, decisions, sessions, apply and recovery on the
 * simulated machines of tests/sim/fs.h, users who act at any call, a network, and an oracle.
 *
 *   site     a machine with a disk, a folder on it, and the replica that has it open
 *   wire     two sessions, and the bytes that are on their way between them
 *   step     one thing that happens: a user's act, a meeting, a cut, a crash. A history is a list of steps, made from the
 *            seed before the first is done; each has a stream of random numbers of its own, so that steps may be left
 *            out (shrinking) and the others still mean what they meant
 *   oracle   what users truly did: engine_oracle.c
 *
 * After the steps all is quiet: what was broken is healed, and replicas meet until they are alike. One seed decides
 * everything; the trace of a run says whether two runs were the same.
 *
 *   engine.c          many histories, in several processes; what failed is shrunk, and shown
 *   engine_history.c  steps, and the quiet end
 *   engine_site.c     replicas: opened, scanned, crashed, brought back
 *   engine_wire.c     sessions and their bytes
 *   engine_user.c     users
 *   engine_oracle.c   truth, checked while it runs
 *   engine_judge.c    and at the end
 *   heap.c, locks.c   malloc and locks, of one thread
 */
#ifndef TESTS_SIM_ENGINE_H
#define TESTS_SIM_ENGINE_H

#include "base/buf.h"
#include "base/clock.h"
#include "tests/sim/fs.h"
#include "tombstones/observe.h"
#include "transfer/session.h"

#define SITES_MAX 5
#define WIRES_MAX 8
#define STEPS_MAX 160
#define USER_STEPS 30
#define FEED_MAX_BYTES 65536 /* on their way, in one direction */
#define USER_PATH_BYTES 128

/* What may happen in a history; which of these do is drawn from its seed, out of those that are allowed. */
#define FEATURES(X)                                                                                                   \
	X(CUT) X(LIVE) X(STALL) X(PAUSE) X(MEDDLE) X(RESTART) X(PURGE) X(AWAY) X(CLOCK) X(OPEN) X(CRASH) X(KILL)       \
	X(FAULT) X(UNMOUNT) X(RESTORE) X(CLONE) X(DISKS) X(STORE) X(ONE_WAY) X(HOLD) X(SINGLE) X(LOOK) X(EXACT) X(STALE)   \
	X(LIE) X(CHASE) X(BLACKOUT)
enum feature {
#define X(name) FEATURE_##name,
	FEATURES(X)
#undef X
	FEATURE_COUNT
};

/* Why a history is wrong; also the exit status of the process that ran it, from WRONG_STATUS on. */
enum wrong {
	WRONG_OTHER,	    /* an error that nothing explains, a session that stands still … */
	WRONG_DIVERGED,	    /* P1 */
	WRONG_LOST,	    /* P2 */
	WRONG_RESURRECTED,  /* P3 */
	WRONG_TAKEN,	    /* P4: removed, though no user did */
	WRONG_TORN,	    /* P5: neither the old nor the new object */
	WRONG_EVENT,	    /* P7: an event that no user made, something left behind */
	WRONG_CONTENT,	    /* P8: content that nobody wrote */
	WRONG_CONFLICT,	    /* a conflict copy of what nobody was in conflict about */
	WRONG_TRACE,	    /* another trace the second time */
};
#define WRONG_STATUS 40

struct engine;
struct oracle;

struct site {
	struct engine *engine;
	char name, mount[8];
	struct sim_host *host;
	struct sim_disk *disk;
	struct ignore *ignore;
	struct replica *replica; /* NULL: not open */
	bool mounted, paused;
	bool made;	/* the folder was there once, and is not to be made again */
	bool dirty;	/* a session says that the disk is not as the index says */
	int64_t distrust_ns; /* and that no stamp of before says what is there; 0: it does not */
	bool broken;	/* a batch failed: to be recovered when no session is left */
	int64_t recover_at_ns; /* when it tries again to look at what recovery could not; 0: there is nothing */
	bool changed;	/* the index was changed: sessions are to be told */
	bool full;	/* trash may go to make room */
	bool denied;	/* attributes could not be set or looked after, which is told, and no difference: DESIGN.md */
	bool excused;	/* a fault, a crash or a missing disk explains errors; until all is quiet */
	bool acted;	/* a user acted, or its disk changed, since the last complete scan */
	bool seen;	/* that one saw all that is in the tree, and nothing was done there since, by syncd neither */
	bool older;	/* its disk is an older one, or a copy, and it has not seen all of it since */
	uint64_t die_at; /* a call of the disk; 0: none */
	bool power;	 /* … at which power is lost, or else only the process dies */
	uint64_t act_at; /* a call at which a user acts; 0: none */
	uint64_t act_stream;
	bool meddled; /* a user acted in the middle of what the replica does now */
	unsigned chases; /* so often a user is there at the next call when something comes into the tree; 0: nobody waits for that */
	char landed[USER_PATH_BYTES]; /* where something just came; "": nothing did */
	struct sim_disk *saved; /* an older copy of the disk; NULL: none */
	struct sim_disk *other; /* mounted in its place; NULL: none */
	int held; /* a descriptor that a user holds open for writing; -1: none */
	bool stored;	  /* its disk was copied while something stored had no time stamp: nobody will see that closed */
	bool held_stored; /* by a mapping: what is stored so from now on moves no time stamp, until it is closed */
	bool held_taken; /* a user took it out of the tree */
};

struct end {
	struct wire *wire;
	struct site *site;
	struct session *session; /* NULL: its machine died */
	struct session_job *taken[SESSION_LANES];
	bool opened, greeted; /* the host owes an answer */
	bool changed_by_us;
	bool closed; /* it was told that the stream is at its end */
};

struct wire {
	bool used, live, cut, excused;
	struct end end[2];	/* the client first */
	struct buf pipe[2];	/* from end i to the other */
	bool stalled[2];	/* nothing of pipe i arrives */
	uint64_t moved, cut_after; /* bytes; 0: never cut */
	uint64_t spoil_at; /* the byte with that number is changed on its way; 0: none */
	int liar; /* an end that sends other content than it says; -1: none does */
	struct frame_reader *said; /* by that one */
	struct frame_writer *lies;
};

enum step_kind {
	STEP_USER, STEP_MEET, STEP_RUN, STEP_SCAN, STEP_CUT, STEP_STALL, STEP_PAUSE, STEP_MEDDLE, STEP_RESTART, STEP_PURGE,
	STEP_AWAY, STEP_CLOCK, STEP_OPEN, STEP_CRASH, STEP_KILL, STEP_FAULT, STEP_UNMOUNT, STEP_SAVE, STEP_RESTORE, STEP_CLONE,
	STEP_CHASE, STEP_BLACKOUT, STEP_KINDS
};

struct step {
	enum step_kind kind;
	uint64_t stream;
};

struct engine {
	uint64_t seed;
	uint64_t random; /* of the step that is being done */
	uint32_t features, allowed;
	bool told; /* what happens is printed */
	unsigned n_sites, n_steps, at; /* at: the step being done */
	struct step steps[STEPS_MAX];
	const bool *keep; /* of the steps; NULL: all */
	struct site sites[SITES_MAX];
	struct wire wires[WIRES_MAX];
	unsigned n_wires; /* from this one on none is used */
	int64_t grace_ns, ticked_ns;
	bool quiet; /* nothing goes wrong any more */
	bool expiring; /* trash may go */
	bool restored; /* some exceptions may stay: see DESIGN.md, "Known" */
	bool passed_on; /* what came in one session, before its round was over, could go on by another one */
	bool cloned; /* two replicas have one past: they may refuse each other for a while, and keep exceptions */
	struct oracle *oracle;
};

/* --- engine.c --- */

__attribute__((format(printf, 2, 3))) void tell(const struct engine *e, const char *fmt, ...);
__attribute__((format(printf, 3, 4))) _Noreturn void wrong(const struct engine *e, enum wrong what, const char *fmt, ...);
static inline bool engine_has(const struct engine *e, enum feature f)
{
	return e->features >> f & 1;
}
static inline size_t engine_below(struct engine *e, size_t n)
{
	return sim_below(&e->random, n);
}
static inline bool engine_one_in(struct engine *e, unsigned n)
{
	return sim_one_in(&e->random, n);
}

/* --- engine_history.c --- */

void history_plan(struct engine *e); /* seed and allowed are set: all else */
uint64_t history_run(struct engine *e); /* the trace. Ends the process if it goes wrong */

/* --- engine_site.c --- */

struct site *site_new(struct engine *e, const struct sim_disk *from); /* with a copy of that disk; NULL: a new one */
void site_free(struct site *s);
bool site_open(struct site *s); /* false: it could not be, and there is a reason */
void site_close(struct site *s); /* its sessions, too */
void site_scan(struct site *s);
void site_look(struct site *s); /* scan a few paths, as if events had named them */
void site_recover(struct site *s); /* once no session is left */
bool site_died(const struct site *s);
bool site_joined(const struct site *s); /* it is open, and its folder's id is that of others, too */
/* After its machine died: what the disk is then, and a new start. */
void site_revive(struct site *s);
void site_arm(struct site *s); /* die_at, act_at, chases */
void site_purge(struct site *s, int64_t later_ns);
void site_drop_held(struct site *s);
void site_unmount(struct site *s, bool other); /* other: another disk is there instead, an empty one */
void site_mount(struct site *s);
void site_save(struct site *s);
void site_restore(struct site *s, bool copied); /* copied: file by file */

/* --- engine_wire.c --- */

struct wire *wire_between(struct engine *e, const struct site *a, const struct site *b); /* NULL */
enum way { WAY_BOTH, WAY_PUSH, WAY_PULL }; /* as the client sees it */
struct wire *wire_new(struct engine *e, struct site *client, struct site *server, bool live, enum way way);
void wire_lie(struct wire *w, int end); /* from now on; nothing was sent yet */
void wire_cut(struct wire *w);
bool wire_gone(const struct wire *w); /* nothing more will happen on it */
void wire_free(struct wire *w);
/* One thing of each wire, as often as said or until nothing is left to do. */
void wires_run(struct engine *e, unsigned passes);
void wires_tick(struct engine *e);
void wires_of_site_end(struct site *s); /* its machine died, or its folder was closed */
bool wires_heard(const struct site *s);	/* is somebody still reading what it said before? */
void wires_excuse(struct site *s); /* errors on its wires have a reason */

/* --- engine_user.c --- */

void user_path(struct site *s, uint64_t *random, char ret[USER_PATH_BYTES]); /* that somebody may have used */
void user_act(struct site *s, uint64_t *random);
void user_act_at(struct site *s, uint64_t *random, const char *path); /* as a rule he rewrites it */
void user_rewrite(struct site *s, uint64_t *random, const char *path); /* in place; size and mtime stay */
void user_hold(struct site *s, uint64_t *random); /* open a file for writing, write what is open, or close it */

/* --- engine_oracle.c --- */

void oracle_new(struct engine *e);
void oracle_free(struct engine *e);
void oracle_watch(struct site *s); /* from now on, its disk */
/* Around what a user does on a disk: what it looked like before, and what is other since then. */
void oracle_before(struct site *s);
enum oracle_cause { ORACLE_USER, ORACLE_CRASH, ORACLE_RESTORE };
void oracle_after(struct site *s, enum oracle_cause cause);
/* After that: the user had to do with the path in the middle of what the replica did; it, and what is below, may be put aside for
 * that. */
void oracle_met(struct site *s, const char *path);
/* After that: he stored through a mapping, and no stamp moved. */
void oracle_stored(struct site *s);
/* After a crash, once the replica is open again: did it bring back what the replica never recorded? */
bool oracle_unrecorded(struct site *s);
/* Then: what had been recorded as it stood before is there. */
void oracle_recorded(struct site *s);
/* What a scan recorded as deleted, after that sequence of the index, is not there. */
void oracle_heard(struct engine *e); /* what was said before a disk became older may still be put in place */
void oracle_deleted(struct site *s, uint64_t before_seq);
/* Has a file two names, as a crash in the middle of a rename leaves them? What is set on one is set on the other. */
bool oracle_linked(struct site *s);
/* A clone came: what it has, it has of its own. */
void oracle_cloned(struct site *s);
/* Judge what syncd took away from paths since the last time. */
void oracle_check_taken(struct engine *e);
unsigned oracle_content(struct engine *e, uint64_t *random, char *ret, size_t *ret_n); /* new, never written before */
#define ORACLE_CONTENT_MAX 80000
/* A number for a site's tree (paths, kinds, contents; modes, mtimes), the same for the same tree. */
uint64_t oracle_tree(struct site *s, bool attributes);
void oracle_print_tree(struct site *s);
void oracle_judge(struct engine *e);

/* --- engine_judge.c --- */

bool judge_alike(struct engine *e); /* trees, roots; no exceptions */
void judge_print(struct engine *e); /* why they are not */
void judge_end(struct engine *e);

#endif
