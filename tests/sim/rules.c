/*
 * tests/sim/rules.c — random histories of a few replicas, decided by the real rules and judged
 * against ground truth.
 *
 * Replicas are arrays of records in memory. What is real: tombstones/decide, knowledge, conflict
 * (names), purge (purge_allowed) and merkle/version with its lineage. What is here: users who edit,
 * delete, chmod and touch, trees of two levels, sessions of both directions whose steps interleave
 * with everything else and that are cut at any path, restarts with new incarnations, replicas
 * restored from an older state, purges at any moment, edges that only one side uses.
 *
 * Beside each record stands `hist`, the true set of events it descends from. Only the judge looks
 * at it; after a quiet end, in which every pair meets, it asks: diverged     do all hold the same,
 * to the last dot? (P1)      lost         is every content there that no user replaced? (P2)
 *   resurrected  is something back that was deleted? (P3)         vanished     is something gone
 * that nobody deleted? (P4) untaken      has each what another holds, or seen it?         broken
 * tree  does something lie below what is no directory? excepted     are exceptions left? setuid
 * does content run with rights given to another?
 *
 * usage: rules RUNS [SEED [flat|tree|oneway]]      one run traces its history
 */
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/error.h"
#include "merkle/path.h"
#include "tombstones/conflict.h"
#include "tombstones/decide.h"
#include "tombstones/knowledge.h"
#include "tombstones/purge.h"

#define REPLICAS_MAX 5
#define PATHS_MAX 256
#define EVENTS_MAX 4096
#define WORDS (EVENTS_MAX / 64)
#define GOING_MAX 128
#define SAVED_MAX 64
#define QUIET_ROUNDS_MAX 14
#define PRIVILEGES 06000
#define NONE (-1)

enum mode { FLAT, TREE, ONEWAY, MODES };
static const char *const mode_names[] = {"flat", "tree", "oneway"};

enum verdict {
	DIVERGED,
	EXCEPTED,
	BROKEN_TREE,
	UNTAKEN,
	LOST,
	RESURRECTED,
	VANISHED,
	SETUID,
	VERDICTS
};
static const char *const policy_names[] = {
	[DECIDE_KEEP_BOTH] = "keep-both", [DECIDE_NEWEST] = "newest", [DECIDE_PREFER] = "prefer"};
static const char *const verdict_names[] = {
	"P1 diverged",
	"exceptions left",
	"broken tree",
	"never taken",
	"P2 lost",
	"P3 resurrected",
	"P4 vanished",
	"setuid strayed",
};

/* --- the world
 * ------------------------------------------------------------------------------------------------
 */

struct bits {
	uint64_t w[WORDS];
};

struct event {
	int path;
	bool live, user;
	bool touch; /* attributes or mtime only */
	uint8_t kind;
	uint64_t content; /* a number that stands for it */
	uint16_t mode;	  /* after it */
	struct version_dot dot;
	struct bits before; /* what its record descended from */
};

struct entry {
	bool present;
	struct record record;
	struct bits hist;
};

struct replica_state {
	struct entry entries[PATHS_MAX];
	struct knowledge knowledge;
	uint64_t clock;
	struct version_dot own;	 /* the open incarnation, inc 0: none since the start */
	struct version_dot last; /* where our own line stands: the next incarnation's parent */
};

struct world {
	uint64_t random;
	enum mode mode;
	bool trace;
	size_t n;
	struct replica_state *replicas;	       /* n of them */
	bool deaf[REPLICAS_MAX][REPLICAS_MAX]; /* [x][y]: x takes nothing from y */
	char *paths[PATHS_MAX];		       /* interned; owned */
	int parents[PATHS_MAX];
	int n_paths, n_user_paths;
	struct event *events; /* EVENTS_MAX */
	size_t n_events;
	size_t words; /* of a set of events that are in use */
	struct version_lineage *lineage;
	struct decide_policy policy;
	uint64_t prefer[REPLICAS_MAX];
	struct members nobody;
	bool restored;
	uint64_t changes; /* of any record or knowledge */
	unsigned bad[VERDICTS];
};

__attribute__((noreturn, format(printf, 1, 2))) static void fail(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fputc('\n', stderr);
	exit(2);
}

static int check(int r, const char *what)
{
	if (r < 0)
		fail("%s: %s", what, strerror(-r));
	return r;
}

__attribute__((format(printf, 2, 3))) static void trace(const struct world *w, const char *fmt, ...)
{
	va_list ap;

	if (!w->trace)
		return;
	va_start(ap, fmt);
	vprintf(fmt, ap);
	va_end(ap);
	putchar('\n');
}

/* splitmix64 */
static uint64_t draw(struct world *w)
{
	uint64_t z = w->random += UINT64_C(0x9e3779b97f4a7c15);

	z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
	return z ^ (z >> 31);
}

static size_t below_n(struct world *w, size_t n)
{
	return (size_t)(draw(w) % n);
}

static bool percent(struct world *w, unsigned p)
{
	return draw(w) % 100 < p;
}

static bool bit(const struct bits *b, size_t i)
{
	return b->w[i / 64] >> (i % 64) & 1;
}

static void set_bit(struct bits *b, size_t i)
{
	b->w[i / 64] |= UINT64_C(1) << (i % 64);
}

static void unite_bits(const struct world *w, struct bits *b, const struct bits *other)
{
	for (size_t i = 0; i < w->words; i++)
		b->w[i] |= other->w[i];
}

static int intern(struct world *w, const char *path)
{
	char parent[64];
	int i;

	for (i = 0; i < w->n_paths; i++)
		if (!strcmp(w->paths[i], path))
			return i;
	if (w->n_paths == PATHS_MAX)
		fail("more than %d paths", PATHS_MAX);
	w->paths[i] = strdup(path);
	if (!w->paths[i])
		fail("no memory");
	w->n_paths++;
	w->parents[i] = NONE;
	if (path_parent_length(path)) {
		snprintf(parent, sizeof(parent), "%.*s", (int)path_parent_length(path), path);
		w->parents[i] = intern(w, parent);
	}
	return i;
}

static bool takes(
	const struct world *w, const struct replica_state *x, const struct replica_state *y)
{
	return !w->deaf[x - w->replicas][y - w->replicas];
}

/* --- a replica
 * --------------------------------------------------------------------------------------------------
 */

static bool is_live(const struct replica_state *r, int p)
{
	return r->entries[p].present && r->entries[p].record.live;
}

static bool is_live_below(const struct world *w, const struct replica_state *r, int q, int p)
{
	return is_live(r, q) && w->parents[q] == p; /* two levels */
}

static bool any_below(const struct world *w, const struct replica_state *r, int p)
{
	for (int q = 0; q < w->n_paths; q++)
		if (is_live_below(w, r, q, p))
			return true;
	return false;
}

/* What is on disk, 0: nothing. A directory exists where its record is live or anything below is. */
static uint8_t kind_on_disk(const struct world *w, const struct replica_state *r, int p)
{
	if (is_live(r, p))
		return r->entries[p].record.kind;
	return any_below(w, r, p) ? RECORD_DIRECTORY : 0;
}

static uint64_t content_number(const struct record *r)
{
	uint64_t n = 0;

	for (int i = 0; i < 6; i++) /* the digits that name conflict copies */
		n = n << 8 | r->content.root.bytes[i];
	return n;
}

static void set_content(struct record *r, uint8_t kind, uint64_t content)
{
	r->kind = kind;
	r->content = (struct content){0};
	free(r->target);
	r->target = NULL;
	if (kind != RECORD_DIRECTORY)
		for (int i = 0; i < 6; i++)
			r->content.root.bytes[i] = (uint8_t)(content >> (40 - 8 * i));
	if (kind == RECORD_SYMLINK && asprintf(&r->target, "%" PRIu64, content) < 0)
		fail("no memory");
}

static void entry_clear(struct entry *e)
{
	if (e->present)
		record_deinit(&e->record);
	*e = (struct entry){0};
}

static void state_clear(struct replica_state *r)
{
	for (int p = 0; p < PATHS_MAX; p++)
		if (r->entries[p].present)
			entry_clear(&r->entries[p]);
	knowledge_deinit(&r->knowledge);
}

static void state_copy(struct replica_state *ret, const struct replica_state *from)
{
	for (int p = 0; p < PATHS_MAX; p++) {
		entry_clear(&ret->entries[p]);
		if (!from->entries[p].present)
			continue;
		ret->entries[p] = (struct entry){.present = true, .hist = from->entries[p].hist};
		check(record_copy(&ret->entries[p].record, &from->entries[p].record), "copy");
	}
	check(knowledge_copy(&ret->knowledge, &from->knowledge), "copy");
	ret->clock = from->clock;
	ret->own = from->own;
	ret->last = from->last;
}

/* Rights that this content was never given. */
static bool strayed(const struct world *w, const struct entry *e)
{
	const struct record *r = &e->record;

	if (!r->live || !(r->mode & PRIVILEGES) || r->kind == RECORD_DIRECTORY)
		return false;
	for (size_t i = 0; i < w->n_events; i++)
		if (bit(&e->hist, i) && w->events[i].live && w->events[i].kind == r->kind &&
			w->events[i].content == content_number(r) &&
			(w->events[i].mode & PRIVILEGES))
			return false;
	return true;
}

/* Takes the record over. */
static void put(struct world *w, struct replica_state *r, int p, struct record *record,
	const struct bits *hist)
{
	struct entry *e = &r->entries[p];

	if (e->present)
		record_deinit(&e->record);
	*e = (struct entry){.present = true, .record = *record, .hist = *hist};
	*record = (struct record){0};
	w->changes++;
	if (strayed(w, e))
		w->bad[SETUID]++;
}

static void drop(struct world *w, struct replica_state *r, int p)
{
	entry_clear(&r->entries[p]);
	w->changes++;
}

static void next_dot(struct world *w, struct replica_state *r, const struct record *old)
{
	uint64_t counter = old ? version_vector_max_counter(&old->vv) : 0;

	if (!r->own.inc) { /* first event since the start */
		struct version_incarnation i = {
			.inc = draw(w) | 1,
			.parent = r->last.inc,
			.from = r->last.counter,
			.replica = (uint64_t)(r - w->replicas) + 1,
		};

		check(version_lineage_add(w->lineage, &i), "lineage");
		r->own.inc = i.inc;
	}
	r->clock = (counter > r->clock ? counter : r->clock) + 1;
	r->own.counter = r->clock;
	r->last = r->own;
	check(knowledge_event(&r->knowledge, r->own, w->lineage), "event");
}

static void one_dot(struct version_dots *d, struct version_dot dot)
{
	version_dots_deinit(d);
	check(version_dots_add(d, dot), "dots");
}

enum change { STATE, ATTRIBUTES, MTIME, DELETE };

/* What a change makes of its path. */
struct edit {
	enum change change;
	uint8_t kind;
	uint64_t content; /* 0: a new one */
	uint16_t mode;
	int64_t mtime_ns;
	bool user;
	const struct bits *extra; /* more that it descends from, may be NULL */
};

static void write_registers(
	struct record *r, const struct record *old, const struct edit *e, struct version_dot dot)
{
	bool kept = old && old->live && old->kind == e->kind;

	if (e->change == STATE || e->change == DELETE) {
		one_dot(&r->dots, dot);
		version_dots_deinit(&r->lost);
	}
	if (e->change == DELETE) {
		struct record tombstone = {.vv = r->vv, .dots = r->dots};

		r->vv = (struct version_vector){0};
		r->dots = (struct version_dots){0};
		record_deinit(r);
		*r = tombstone;
		return;
	}
	r->live = true;
	if (e->change == STATE)
		set_content(r, e->kind, e->content);
	if (e->change == ATTRIBUTES || (e->change == STATE && !kept)) {
		r->mode = e->mode;
		one_dot(&r->adots, dot);
	}
	if (e->change == MTIME || e->change == STATE) {
		r->mtime_ns = e->mtime_ns;
		one_dot(&r->mdots, dot);
	}
	if (r->kind == RECORD_DIRECTORY)
		version_dots_deinit(&r->mdots);
}

/* A replica records a change of its own. */
static void make_event(struct world *w, struct replica_state *r, int p, struct edit e)
{
	struct entry *entry = &r->entries[p];
	const struct record *old = entry->present ? &entry->record : NULL;
	struct record record = {0};
	struct bits hist = entry->hist;
	size_t id = w->n_events;

	if (id == EVENTS_MAX)
		fail("more than %d events", EVENTS_MAX);
	if (e.change == STATE && !e.content && e.kind != RECORD_DIRECTORY)
		e.content = 1000 + id;
	if (e.extra)
		unite_bits(w, &hist, e.extra);
	if (old)
		check(record_copy(&record, old), "copy");
	next_dot(w, r, old);
	check(version_vector_raise(&record.vv, r->own, w->lineage), "vv");
	write_registers(&record, old, &e, r->own);
	w->n_events++;
	w->words = w->n_events / 64 + 1;
	w->events[id] = (struct event){
		.path = p,
		.live = record.live,
		.user = e.user,
		.touch = e.change == ATTRIBUTES || e.change == MTIME,
		.kind = record.kind,
		.content = content_number(&record),
		.mode = record.mode,
		.dot = r->own,
		.before = hist,
	};
	set_bit(&hist, id);
	trace(w,
		"r%d event %zu: %s %s kind %d content %" PRIu64 " mode %o dot %" PRIx64 ":%" PRIu64,
		(int)(r - w->replicas), id, e.user ? "user" : "rule", w->paths[p], record.kind,
		content_number(&record), record.mode, r->own.inc, r->own.counter);
	put(w, r, p, &record, &hist);
}

static void make_deletion(struct world *w, struct replica_state *r, int p, bool user)
{
	make_event(w, r, p, (struct edit){.change = DELETE, .user = user});
}

/* Named by content: every replica finds the same name. An event even where it stands already:
 * someone may be editing it. */
static void copy_aside(struct world *w, struct replica_state *r, int p)
{
	const struct record *o = &r->entries[p].record;
	struct edit e = {.change = STATE,
		.kind = o->kind,
		.content = content_number(o),
		.mode = o->mode,
		.mtime_ns = o->mtime_ns};
	struct bits hist = r->entries[p].hist;

	e.extra = &hist;
	for (unsigned n = 1;; n++) {
		cleanup_free char *name = conflict_path(w->paths[p], &o->content.root, n);
		int q = name ? intern(w, name) : NONE;

		if (q == NONE)
			fail("no memory");
		if (is_live(r, q) && !record_same_state(&r->entries[q].record, o))
			continue;
		make_event(w, r, q, e);
		return;
	}
}

/* --- users
 * ------------------------------------------------------------------------------------------------------
 */

static void user_delete(struct world *w, struct replica_state *r, int p)
{
	for (int q = 0; q < w->n_paths; q++)
		if (is_live_below(w, r, q, p))
			make_deletion(w, r, q, true);
	if (is_live(r, p))
		make_deletion(w, r, p, true);
}

static struct edit new_state(struct world *w, uint8_t kind, uint64_t content)
{
	static const uint16_t modes[] = {0644, 0600, 0755, 04755, 02755};

	return (struct edit){
		.change = STATE,
		.kind = kind,
		.content = content,
		.mode = kind == RECORD_SYMLINK ? 0777 : modes[below_n(w, ARRAY_SIZE(modes))],
		.mtime_ns = (int64_t)below_n(w, 6),
		.user = true,
	};
}

static void user_write(
	struct world *w, struct replica_state *r, int p, uint8_t kind, uint64_t content)
{
	int q = w->parents[p];

	if (q != NONE && kind_on_disk(w, r, q) != RECORD_DIRECTORY) {
		if (kind_on_disk(w, r, q))
			user_delete(w, r, q);
		make_event(w, r, q, new_state(w, RECORD_DIRECTORY, 0));
	}
	if (kind_on_disk(w, r, p) == RECORD_DIRECTORY) {
		if (kind == RECORD_DIRECTORY)
			return;
		user_delete(w, r, p);
	}
	make_event(w, r, p, new_state(w, kind, content));
}

static void user_touch(struct world *w, struct replica_state *r, int p)
{
	struct edit e = new_state(w, 0, 0);

	if (!is_live(r, p))
		return;
	e.change = r->entries[p].record.kind != RECORD_DIRECTORY && percent(w, 50) ? MTIME
										   : ATTRIBUTES;
	e.kind = r->entries[p].record.kind;
	if (e.kind == RECORD_SYMLINK)
		e.change = MTIME;
	make_event(w, r, p, e);
}

/* A path that the user looks at: sometimes a conflict copy. */
static int user_path(struct world *w, const struct replica_state *r)
{
	int copies[PATHS_MAX], n = 0;

	for (int p = w->n_user_paths; p < w->n_paths; p++)
		if (r->entries[p].present)
			copies[n++] = p;
	if (n && percent(w, 20))
		return copies[below_n(w, (size_t)n)];
	return (int)below_n(w, (size_t)w->n_user_paths);
}

static void user(struct world *w)
{
	struct replica_state *r = &w->replicas[below_n(w, w->n)];
	int p = user_path(w, r);
	unsigned k = (unsigned)below_n(w, 100);
	uint8_t kind = percent(w, 10) ? RECORD_SYMLINK : RECORD_FILE;

	if (k < 30)
		user_delete(w, r, p);
	else if (k < 42)
		user_touch(w, r, p);
	else if (w->mode == TREE && w->parents[p] == NONE)
		user_write(w, r, p, k < 65 ? RECORD_DIRECTORY : kind, 0);
	else
		user_write(w, r, p, kind, k < 52 ? 1 + below_n(w, 2) : 0);
}

static void purge(struct world *w)
{
	static const struct purge_policy at_once = {0};
	struct replica_state *r = &w->replicas[below_n(w, w->n)];

	for (int p = 0; p < w->n_paths; p++) {
		const struct entry *e = &r->entries[p];

		if (e->present && !e->record.live &&
			purge_allowed(&e->record, 0, knowledge_of(&r->knowledge, w->paths[p]),
				&w->nobody, 0, &at_once, w->lineage))
			drop(w, r, p);
	}
}

/* --- sessions
 * -----------------------------------------------------------------------------------------------------
 */

struct side {
	struct replica_state *me, *peer;
	struct knowledge theirs; /* as of the start */
	int todo[PATHS_MAX], n_todo, at;
	bool skip[PATHS_MAX];
};

struct session {
	struct replica_state *a, *b;
	unsigned cut; /* percent of the paths that are not dealt with */
	bool started;
	struct side sides[2];
	size_t n;
};

static void shuffle(struct world *w, int *v, int n)
{
	for (int i = n - 1; i > 0; i--) {
		int k = (int)below_n(w, (size_t)i + 1), swapped = v[i];

		v[i] = v[k];
		v[k] = swapped;
	}
}

static void side_start(
	struct world *w, struct session *s, struct replica_state *me, struct replica_state *peer)
{
	struct side *side = &s->sides[s->n];

	if (!takes(w, me, peer))
		return;
	s->n++;
	side->me = me;
	side->peer = peer;
	check(knowledge_copy(&side->theirs, &peer->knowledge), "copy");
	for (int deep = 1; deep >= 0; deep--) { /* what lies below before what lies above */
		int from = side->n_todo;

		for (int p = 0; p < w->n_paths; p++)
			if ((w->parents[p] != NONE) == deep &&
				(me->entries[p].present || peer->entries[p].present))
				side->todo[side->n_todo++] = p;
		shuffle(w, side->todo + from, side->n_todo - from);
	}
}

static bool skipped_below(const struct world *w, const struct side *s, int p)
{
	for (int q = 0; q < w->n_paths; q++)
		if (s->skip[q] && is_live_below(w, s->me, q, p))
			return true;
	return false;
}

/* A live thing that is no directory has no children: it goes aside. */
static void mend_tree(struct world *w, struct side *s, int p)
{
	if (p == NONE || !is_live(s->me, p) || s->me->entries[p].record.kind == RECORD_DIRECTORY ||
		!any_below(w, s->me, p) || skipped_below(w, s, p))
		return;
	copy_aside(w, s->me, p);
	make_deletion(w, s->me, p, false);
}

static void act(struct world *w, struct side *s, int p, struct decide_result *d)
{
	struct entry *o = &s->me->entries[p];
	const struct entry *t = &s->peer->entries[p];
	struct bits hist = o->hist;

	switch (d->action) {
	case DECIDE_DELETE:
		make_deletion(w, s->me, p, false);
		break;
	case DECIDE_DROP:
		drop(w, s->me, p);
		break;
	default:
		unite_bits(w, &hist, &t->hist);
		if (d->action == DECIDE_ASIDE && o->record.kind != RECORD_DIRECTORY)
			copy_aside(w, s->me, p);
		put(w, s->me, p, &d->record, &hist);
	}
}

static void session_path(struct world *w, struct side *s, int p)
{
	const struct entry *o = &s->me->entries[p], *t = &s->peer->entries[p];
	struct decide_result d = {0};
	bool record, goes;

	check(decide(
		      &(struct decide_input){
			      .ours = o->present ? &o->record : NULL,
			      .theirs = t->present ? &t->record : NULL,
			      .our_k = knowledge_of(&s->me->knowledge, w->paths[p]),
			      .their_k = knowledge_of(&s->peer->knowledge, w->paths[p]),
			      .lineage = w->lineage,
			      .taker_loses = !takes(w, s->peer, s->me),
			      .policy = &w->policy,
		      },
		      &d),
		"decide");
	if (d.same_dot)
		fail("one dot names two states");
	if (d.action != DECIDE_NONE)
		trace(w, "r%d from r%d: %s %s", (int)(s->me - w->replicas),
			(int)(s->peer - w->replicas), decide_action_name(d.action), w->paths[p]);
	record = d.action == DECIDE_TAKE || d.action == DECIDE_MERGE || d.action == DECIDE_ASIDE;
	goes = d.action == DECIDE_DELETE ||
	       (record && (!d.record.live ||
				  (d.action != DECIDE_MERGE && d.record.kind != RECORD_DIRECTORY)));
	if (d.action == DECIDE_WAIT || (goes && skipped_below(w, s, p))) {
		s->skip[p] = true;
	} else if (d.action != DECIDE_NONE) {
		act(w, s, p, &d);
		mend_tree(w, s, p);
		mend_tree(w, s, w->parents[p]);
	}
	decide_result_deinit(&d);
}

static void side_learn(struct world *w, struct side *s)
{
	const char *skipped[PATHS_MAX];
	struct knowledge before = {0};
	size_t n = 0;

	for (int p = 0; p < w->n_paths; p++)
		if (s->skip[p])
			skipped[n++] = w->paths[p];
	check(knowledge_copy(&before, &s->me->knowledge), "copy");
	if (check(knowledge_learn(
			  &s->me->knowledge, &s->theirs, skipped, n, s->me->own, w->lineage),
		    "learn"))
		fail("more exceptions than paths");
	w->changes += !knowledge_equal(&before, &s->me->knowledge);
	knowledge_deinit(&before);
}

/* One path of one side; false when the session is over. */
static bool session_step(struct world *w, struct session *s)
{
	struct side *open[2];
	size_t n = 0;
	int p;

	if (!s->started) {
		s->started = true;
		side_start(w, s, s->a, s->b);
		side_start(w, s, s->b, s->a);
	}
	for (size_t i = 0; i < s->n; i++)
		if (s->sides[i].at < s->sides[i].n_todo)
			open[n++] = &s->sides[i];
	if (n) {
		struct side *side = open[below_n(w, n)];

		p = side->todo[side->at++];
		if (s->cut && percent(w, s->cut))
			side->skip[p] = true;
		else
			session_path(w, side, p);
		return true;
	}
	for (size_t i = 0; i < s->n; i++)
		side_learn(w, &s->sides[i]);
	return false;
}

static struct session *session_new(struct replica_state *a, struct replica_state *b, unsigned cut)
{
	struct session *s = calloc(1, sizeof(*s));

	if (!s)
		fail("no memory");
	s->a = a;
	s->b = b;
	s->cut = cut;
	return s;
}

static void session_free(struct session *s)
{
	for (size_t i = 0; i < s->n; i++)
		knowledge_deinit(&s->sides[i].theirs);
	free(s);
}

static void session_finish(struct world *w, struct session *s)
{
	while (session_step(w, s))
		;
	session_free(s);
}

/* --- the judge
 * ------------------------------------------------------------------------------------------------------
 */

static bool all_seen(const struct version_dots *d, const struct version_vector *v,
	const struct version_lineage *l)
{
	for (size_t i = 0; i < d->n; i++)
		if (!version_vector_has(v, d->v[i], l))
			return false;
	return true;
}

static void judge_convergence(struct world *w)
{
	const struct replica_state *first = &w->replicas[0];
	bool same = true;

	for (size_t i = 1; i < w->n; i++)
		for (int p = 0; p < w->n_paths && same; p++) {
			const struct replica_state *r = &w->replicas[i];

			same = is_live(first, p) == is_live(r, p) &&
			       (!is_live(r, p) || record_equal(&first->entries[p].record,
							  &r->entries[p].record));
			if (!same)
				trace(w, "r0 and r%zu differ in %s", i, w->paths[p]);
		}
	w->bad[DIVERGED] += !same;
	for (size_t i = 0; i < w->n && !w->restored;
		i++) /* an event lost with a restored replica may stay excepted */
		w->bad[EXCEPTED] += w->replicas[i].knowledge.n > 0;
}

static void judge_tree(struct world *w)
{
	for (size_t i = 0; i < w->n; i++)
		for (int p = 0; p < w->n_paths; p++)
			if (is_live(&w->replicas[i], p) && w->parents[p] != NONE &&
				kind_on_disk(w, &w->replicas[i], w->parents[p]) != RECORD_DIRECTORY)
				w->bad[BROKEN_TREE]++;
}

/* Who takes has, or has seen, what the other holds. */
static void judge_taken(
	struct world *w, const struct replica_state *x, const struct replica_state *y)
{
	for (int p = 0; p < w->n_paths; p++) {
		const struct entry *m = &x->entries[p];
		const struct record *r = &y->entries[p].record;

		if (!is_live(y, p) || (m->present && record_same_state(&m->record, r)))
			continue;
		if (!all_seen(&r->dots, knowledge_of(&x->knowledge, w->paths[p]), w->lineage) &&
			!(m->present && all_seen(&r->dots, &m->record.vv, w->lineage)))
			w->bad[UNTAKEN]++;
	}
}

static bool content_present(const struct world *w, uint8_t kind, uint64_t content)
{
	for (size_t i = 0; i < w->n; i++)
		for (int p = 0; p < w->n_paths; p++)
			if (is_live(&w->replicas[i], p) &&
				w->replicas[i].entries[p].record.kind == kind &&
				content_number(&w->replicas[i].entries[p].record) == content)
				return true;
	return false;
}

static bool replaced_by_user(const struct world *w, size_t event)
{
	for (size_t i = 0; i < w->n_events; i++)
		if (w->events[i].user && bit(&w->events[i].before, event))
			return true;
	return false;
}

/* Only a user's later event justifies a loss. */
static void judge_lost(struct world *w)
{
	for (size_t i = 0; i < w->n_events; i++) {
		const struct event *e = &w->events[i];

		if (!e->live || !e->user || e->touch || e->kind == RECORD_DIRECTORY ||
			content_present(w, e->kind, e->content) || replaced_by_user(w, i))
			continue;
		trace(w, "event %zu is lost", i);
		w->bad[LOST]++;
	}
}

/* Did a user who had seen event i delete its path, and did anyone hear of it? What went away with a
 * restored replica before anyone heard does not count. */
static bool known_deleted(const struct world *w, size_t event)
{
	for (size_t i = 0; i < w->n_events; i++) {
		const struct event *e = &w->events[i];

		if (e->live || !e->user || e->path != w->events[event].path ||
			!bit(&e->before, event))
			continue;
		for (size_t k = 0; k < w->n; k++)
			if (version_vector_has(
				    knowledge_of(&w->replicas[k].knowledge, w->paths[e->path]),
				    e->dot, w->lineage))
				return true;
	}
	return false;
}

static void judge_resurrected(struct world *w, const struct replica_state *r)
{
	for (int p = 0; p < w->n_paths; p++) {
		const struct entry *e = &r->entries[p];
		bool wrote = false, standing = false;

		if (!is_live(r, p) || e->record.kind == RECORD_DIRECTORY ||
			conflict_is_copy(w->paths[p]))
			continue;
		for (size_t i = 0; i < w->n_events && !standing; i++) {
			const struct event *v = &w->events[i];

			if (!bit(&e->hist, i) || v->path != p || v->touch || !v->live ||
				v->kind != e->record.kind ||
				v->content != content_number(&e->record))
				continue;
			wrote = true;
			standing = !known_deleted(w, i);
		}
		if (wrote && !standing) {
			trace(w, "%s is back", w->paths[p]);
			w->bad[RESURRECTED]++;
		}
	}
}

/* Nothing vanishes that no user deleted. */
static void judge_vanished(struct world *w)
{
	for (int p = 0; p < w->n_user_paths; p++) {
		bool made = false, deleted = false, there = false;

		for (size_t i = 0; i < w->n_events; i++)
			if (w->events[i].path == p) {
				made = made || w->events[i].live;
				deleted = deleted || (!w->events[i].live && w->events[i].user);
			}
		for (size_t i = 0; i < w->n; i++)
			there = there || is_live(&w->replicas[i], p);
		w->bad[VANISHED] += made && !deleted && !there;
	}
}

static void judge(struct world *w)
{
	if (w->mode != ONEWAY) {
		judge_convergence(w);
		for (size_t i = 0; i < w->n; i++)
			judge_resurrected(w, &w->replicas[i]);
	}
	judge_tree(w);
	for (size_t i = 0; i < w->n; i++)
		for (size_t k = 0; k < w->n; k++)
			if (i != k && takes(w, &w->replicas[i], &w->replicas[k]))
				judge_taken(w, &w->replicas[i], &w->replicas[k]);
	if (!w->restored)
		judge_lost(w);
	if (!w->restored && w->mode == FLAT)
		judge_vanished(w);
}

/* --- histories
 * ---------------------------------------------------------------------------------------------------------
 */

struct history {
	struct world w;
	struct session *going[GOING_MAX];
	size_t n_going;
	bool rolls; /* replicas are restored */
	struct replica_state *saved[SAVED_MAX];
	size_t saved_of[SAVED_MAX];
	size_t n_saved;
	struct replica_state *away; /* a member that seldom meets anyone; NULL: none */
};

static void history_init(struct history *h, struct event *events, enum mode mode, uint64_t seed)
{
	static const char *const tree[] = {"d", "e", "d/f", "d/g", "e/f"}, *const flat[] = {"p",
										   "q.c", "r",
										   "s.tar.gz"};
	static const size_t replicas[] = {2, 3, 3, 4, 5}, paths[] = {1, 2, 4};
	static const enum decide_policy_kind policies[] = {
		DECIDE_KEEP_BOTH, DECIDE_KEEP_BOTH, DECIDE_NEWEST, DECIDE_PREFER};
	struct world *w = &h->w;
	size_t n;

	*h = (struct history){.w = {.random = seed * MODES + mode, .mode = mode, .events = events}};
	w->n = replicas[below_n(w, ARRAY_SIZE(replicas))];
	w->replicas = calloc(w->n, sizeof(*w->replicas));
	if (!w->replicas)
		fail("no memory");
	check(version_lineage_new(&w->lineage), "lineage");
	n = mode == TREE ? ARRAY_SIZE(tree) : paths[below_n(w, ARRAY_SIZE(paths))];
	for (size_t i = 0; i < n; i++)
		intern(w, mode == TREE ? tree[i] : flat[i]);
	w->n_user_paths = w->n_paths;
	for (size_t i = 0; mode == ONEWAY && i < w->n; i++)
		for (size_t k = 0; k < w->n; k++)
			w->deaf[i][k] = percent(w, 30);
	w->policy = (struct decide_policy){
		.kind = policies[below_n(w, ARRAY_SIZE(policies))], .prefer = w->prefer};
	for (size_t i = 0; i < w->n; i++)
		if (percent(w, 40))
			w->prefer[w->policy.n_prefer++] = (i + seed) % w->n + 1;
	h->rolls = mode == FLAT && percent(w, 30);
	h->away = w->n > 2 && percent(w, 50) ? &w->replicas[w->n - 1] : NULL;
}

static void history_deinit(struct history *h)
{
	struct world *w = &h->w;

	for (size_t i = 0; i < h->n_going; i++)
		session_free(h->going[i]);
	for (size_t i = 0; i < h->n_saved; i++) {
		state_clear(h->saved[i]);
		free(h->saved[i]);
	}
	for (size_t i = 0; i < w->n; i++)
		state_clear(&w->replicas[i]);
	free(w->replicas);
	while (w->n_paths)
		free(w->paths[--w->n_paths]);
	version_lineage_free(w->lineage);
}

static void meet(struct history *h)
{
	static const unsigned cuts[] = {0, 0, 30, 60};
	struct world *w = &h->w;
	size_t a = below_n(w, w->n), b = (a + 1 + below_n(w, w->n - 1)) % w->n;
	struct session *s;

	if ((&w->replicas[a] == h->away || &w->replicas[b] == h->away) && percent(w, 90))
		return;
	s = session_new(&w->replicas[a], &w->replicas[b], cuts[below_n(w, ARRAY_SIZE(cuts))]);
	if (h->n_going < GOING_MAX && percent(w, 60))
		h->going[h->n_going++] = s;
	else
		session_finish(w, s);
}

static void restore(struct history *h)
{
	struct world *w = &h->w;
	size_t i = below_n(w, h->n_saved);
	struct replica_state *r = &w->replicas[h->saved_of[i]];

	for (size_t k = 0; k < h->n_going; k++)
		if (h->going[k]->a == r || h->going[k]->b == r)
			return;
	trace(w, "r%zu is restored", h->saved_of[i]);
	state_copy(r, h->saved[i]);
	r->own = (struct version_dot){0, 0};
}

static void save(struct history *h)
{
	size_t i = below_n(&h->w, h->w.n);

	h->w.restored = true;
	if (h->n_saved == SAVED_MAX)
		return;
	h->saved_of[h->n_saved] = i;
	h->saved[h->n_saved] = calloc(1, sizeof(*h->saved[0]));
	if (!h->saved[h->n_saved])
		fail("no memory");
	state_copy(h->saved[h->n_saved++], &h->w.replicas[i]);
}

static void something(struct history *h)
{
	struct world *w = &h->w;
	size_t k = below_n(w, 100);

	if (k < 40)
		user(w);
	else if (k < 80)
		meet(h);
	else if (k < 90)
		purge(w);
	else if (k < 95)
		w->replicas[below_n(w, w->n)].own = (struct version_dot){0, 0}; /* a restart */
	else if (h->rolls && h->n_saved && percent(w, 50))
		restore(h);
	else if (h->rolls)
		save(h);
}

static void advance(struct history *h)
{
	size_t kept = 0;

	for (size_t i = 0; i < h->n_going; i++) {
		bool more = true;

		for (size_t steps = below_n(&h->w, 3); steps > 0 && more; steps--)
			more = session_step(&h->w, h->going[i]);
		if (more)
			h->going[kept++] = h->going[i];
		else
			session_free(h->going[i]);
	}
	h->n_going = kept;
}

/* Every pair meets, repeatedly, until nothing moves any more. */
static void quiet(struct world *w)
{
	int pairs[REPLICAS_MAX * REPLICAS_MAX];
	uint64_t before = w->changes + 1;

	for (int round = 0; round < QUIET_ROUNDS_MAX && before != w->changes; round++) {
		int n = 0;

		before = w->changes;
		for (size_t a = 0; a < w->n; a++)
			for (size_t b = a + 1; b < w->n; b++)
				pairs[n++] = (int)(a * w->n + b);
		shuffle(w, pairs, n);
		for (int i = 0; i < n; i++) {
			size_t a = (size_t)pairs[i] / w->n, b = (size_t)pairs[i] % w->n;

			session_finish(w, session_new(&w->replicas[a], &w->replicas[b], 0));
			if (percent(w, 30))
				purge(w);
		}
	}
}

/* Is anything wrong? ret_bad[VERDICTS] is added to. */
static bool run(struct event *events, enum mode mode, uint64_t seed, bool traced, unsigned *ret_bad)
{
	static const size_t lengths[] = {5, 15, 40, 80};
	struct history *h = malloc(sizeof(*h));
	bool wrong = false;

	if (!h)
		fail("no memory");
	history_init(h, events, mode, seed);
	h->w.trace = traced;
	trace(&h->w, "%zu replicas, conflicts by %s", h->w.n, policy_names[h->w.policy.kind]);
	for (size_t n = lengths[below_n(&h->w, ARRAY_SIZE(lengths))]; n > 0; n--) {
		something(h);
		advance(h);
	}
	while (h->n_going)
		session_finish(&h->w, h->going[--h->n_going]);
	quiet(&h->w);
	judge(&h->w);
	for (size_t i = 0; i < VERDICTS; i++) {
		wrong = wrong || h->w.bad[i];
		ret_bad[i] += h->w.bad[i] > 0;
	}
	history_deinit(h);
	free(h);
	return wrong;
}

/* Returns the number of histories in which something was wrong. */
static uint64_t run_mode(struct event *events, enum mode mode, uint64_t runs, uint64_t seed)
{
	unsigned bad[VERDICTS] = {0};
	uint64_t wrong = 0;

	for (uint64_t i = 0; i < runs; i++) {
		unsigned one[VERDICTS] = {0};

		if (!run(events, mode, seed + i, runs == 1, one))
			continue;
		for (size_t v = 0; v < VERDICTS; v++) {
			if (one[v] && !bad[v])
				printf("%s: seed %" PRIu64 ": %s\n", mode_names[mode], seed + i,
					verdict_names[v]);
			bad[v] += one[v];
		}
		wrong++;
	}
	printf("%-6s %" PRIu64 " histories from seed %" PRIu64 ": ", mode_names[mode], runs, seed);
	if (!wrong)
		puts("nothing wrong");
	else
		printf("%" PRIu64 " wrong\n", wrong);
	fflush(stdout);
	return wrong;
}

int main(int argc, char **argv)
{
	uint64_t runs = argc > 1 ? strtoull(argv[1], NULL, 10) : 0;
	uint64_t seed = argc > 2 && *argv[2] ? strtoull(argv[2], NULL, 10) : (uint64_t)time(NULL);
	cleanup_free struct event *events = calloc(EVENTS_MAX, sizeof(*events));
	uint64_t wrong = 0;

	if (!runs || argc > 4 || !events) {
		fprintf(stderr, "usage: rules RUNS [SEED [flat|tree|oneway]]\n");
		return 2;
	}
	for (int mode = 0; mode < MODES; mode++)
		if (argc < 4)
			wrong +=
				run_mode(events, (enum mode)mode, (runs + MODES - 1) / MODES, seed);
		else if (!strcmp(argv[3], mode_names[mode]))
			wrong += run_mode(events, (enum mode)mode, runs, seed);
	return wrong ? 1 : 0;
}
