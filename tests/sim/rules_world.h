/*
 * tests/sim/rules_world.h — replicas as arrays of records in memory, under the real rules: the world of `make sim-rules` (random
 * histories) and `make sim-trees` (all small trees).
 *
 * What is real: tombstones/decide, knowledge, conflict (names), purge (purge_allowed) and merkle/version with its lineage. What
 * is here: events of users, sessions of both directions whose steps interleave with everything else, and the derived tree.
 *
 * Beside each record stands `hist`, the true set of events that it descends from. Only judges look at it.
 *
 * A world is made once and used for one history after the other (rules_begin): what a history costs is what happens in it.
 * Nothing returns an error: a call of the rules that fails, or a limit of this file, ends the process (2) and says the seed.
 */
#ifndef TESTS_SIM_RULES_WORLD_H
#define TESTS_SIM_RULES_WORLD_H

#include "tombstones/decide.h"
#include "tombstones/knowledge.h"
#include "tombstones/members.h"

#define RULES_REPLICAS_MAX 5
#define RULES_PATHS_MAX 256
#define RULES_EVENTS_MAX 4096
#define RULES_NONE (-1)

/* A set of events. Words from n on are not there. */
struct rules_events {
	size_t n;
	uint64_t w[RULES_EVENTS_MAX / 64];
};

struct rules_event {
	int path;
	bool live, user;
	bool touch; /* attributes or mtime only */
	uint8_t kind;
	uint64_t content; /* a number that stands for it */
	uint16_t mode;	  /* after it */
	struct version_dot dot;
	struct rules_events before; /* what its record descended from */
	uint8_t heard_by;	    /* of a deletion, where replicas are put back: a bit for each that knows of it, and holds nothing older */
};

struct rules_entry {
	bool present;
	struct record record;
	struct rules_events hist;
};

struct rules_replica {
	struct rules_entry entries[RULES_PATHS_MAX];
	struct knowledge knowledge;
	uint64_t clock;
	struct version_dot own;	 /* the open incarnation, inc 0: none since the start */
	struct version_dot last; /* where our own line stands: the next incarnation's parent */
	uint64_t changes;	 /* of its records and its knowledge */
	int top;		 /* entries from here on are empty */
};

struct rules_session;
struct rules_world {
	uint64_t seed, random;
	bool trace;
	size_t n;
	struct rules_replica replicas[RULES_REPLICAS_MAX];
	bool deaf[RULES_REPLICAS_MAX][RULES_REPLICAS_MAX]; /* [x][y]: x takes nothing from y */
	char *paths[RULES_PATHS_MAX];			   /* owned */
	int parents[RULES_PATHS_MAX], depths[RULES_PATHS_MAX];
	int order[RULES_PATHS_MAX]; /* paths, as trees are walked: descending */
	int n_paths, depth_max;
	struct rules_event events[RULES_EVENTS_MAX];
	size_t n_events;
	struct version_lineage *lineage;
	struct decide_policy policy;
	uint64_t prefer[RULES_REPLICAS_MAX];
	struct members nobody;
	struct rules_session *spare;
	bool rolls;   /* replicas are put back */
	bool strayed; /* a file got rights that were never given to its content */
};

struct rules_world *rules_new(void);
void rules_free(struct rules_world *w);
/* Another history, of n empty replicas. What the last one left is freed. */
void rules_begin(struct rules_world *w, size_t n, uint64_t seed, uint64_t random);

__attribute__((noreturn, format(printf, 2, 3))) void rules_fail(const struct rules_world *w, const char *fmt, ...);
__attribute__((format(printf, 1, 2))) void rules_print(const char *fmt, ...);
#define rules_trace(w, ...) ((w)->trace ? rules_print(__VA_ARGS__) : (void)0)

/* --- chance --- */

uint64_t rules_draw(struct rules_world *w);
size_t rules_below(struct rules_world *w, size_t n);
bool rules_percent(struct rules_world *w, unsigned p);
void rules_shuffle(struct rules_world *w, int *v, int n);

/* --- sets of events --- */

bool rules_has_event(const struct rules_events *s, size_t event);

/* --- paths and what is at them --- */

/* The path's number; it and what is above it are added where they are new. */
int rules_path(struct rules_world *w, const char *path);
bool rules_is_below(const struct rules_world *w, int q, int p);
bool rules_live(const struct rules_replica *r, int p);
bool rules_live_below(const struct rules_world *w, const struct rules_replica *r, int p);
/* What is on disk, 0: nothing. A directory exists where its record is live or anything below is. */
uint8_t rules_kind(const struct rules_world *w, const struct rules_replica *r, int p);
uint64_t rules_content(const struct record *r);
int rules_number(const struct rules_world *w, const struct rules_replica *r); /* of a replica: 0, 1, … */
void rules_copy(struct rules_world *w, struct rules_replica *ret, const struct rules_replica *from);
/* r is what it was when it was saved. */
void rules_put_back(struct rules_world *w, struct rules_replica *r, const struct rules_replica *saved);
/* Frees what a replica holds that is none of the world's (a saved one). */
void rules_clear(struct rules_replica *r);

/* --- events --- */

enum rules_change { RULES_STATE, RULES_ATTRIBUTES, RULES_MTIME, RULES_DELETE };

struct rules_edit {
	enum rules_change change;
	uint8_t kind;
	uint64_t content; /* 0: a new one */
	uint16_t mode;
	int64_t mtime_ns;
	bool user;
	const struct rules_events *extra; /* more that it descends from, may be NULL */
};

/* A replica records a change of its own. */
void rules_event(struct rules_world *w, struct rules_replica *r, int p, const struct rules_edit *e);
void rules_delete(struct rules_world *w, struct rules_replica *r, int p, bool user);
void rules_restart(struct rules_replica *r);
/* All tombstones that may go, do. */
void rules_purge(struct rules_world *w, struct rules_replica *r);

/* --- sessions --- */

enum rules_order {
	RULES_SHUFFLED, /* what lies below first, else in any order; the tree is mended after each path */
	RULES_WALK,	/* as transfer/session does it: in descending order, in batches, deletions at the end */
};

/* cut: percent of the paths that are skipped. WALK: percent at each path that the session ends there. */
struct rules_session *rules_session_new(
	struct rules_world *w, struct rules_replica *a, struct rules_replica *b, enum rules_order order, unsigned cut);
void rules_session_free(struct rules_world *w, struct rules_session *s);
/* One path of one side; false when the session is over. */
bool rules_session_step(struct rules_world *w, struct rules_session *s);
bool rules_session_of(const struct rules_session *s, const struct rules_replica *r);
/* All of it, and free it. Was it idle: nothing changed, nothing was skipped? */
bool rules_session_finish(struct rules_world *w, struct rules_session *s);
/* What a SHUFFLED session that is known to be idle would draw is drawn; nothing else happens. */
void rules_session_pass(struct rules_world *w, const struct rules_replica *a, const struct rules_replica *b);

#endif
