/* tests/sim/rules_world.c — see tests/sim/rules_world.h. */
#include "tests/sim/rules_world.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "merkle/path.h"
#include "tests/random.h"
#include "tombstones/conflict.h"
#include "tombstones/purge.h"

#define PRIVILEGES 06000
#define BATCH_ENDS 30 /* percent, after each path of a walk */

void rules_fail(const struct rules_world *w, const char *fmt, ...)
{
	va_list ap;

	fflush(stdout);
	fprintf(stderr, "seed %" PRIu64 ": ", w->seed);
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fputc('\n', stderr);
	fflush(stderr);
	_Exit(2);
}

void rules_print(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vprintf(fmt, ap);
	va_end(ap);
	putchar('\n');
}

static int check(const struct rules_world *w, int r, const char *what)
{
	if (r < 0)
		rules_fail(w, "%s: %s", what, strerror(-r));
	return r;
}

/* --- chance --- */

uint64_t rules_draw(struct rules_world *w)
{
	return test_random(&w->random);
}

size_t rules_below(struct rules_world *w, size_t n)
{
	return (size_t)(rules_draw(w) % n);
}

bool rules_percent(struct rules_world *w, unsigned p)
{
	return rules_draw(w) % 100 < p;
}

void rules_shuffle(struct rules_world *w, int *v, int n)
{
	for (int i = n - 1; i > 0; i--) {
		int k = (int)rules_below(w, (size_t)i + 1), swapped = v[i];

		v[i] = v[k];
		v[k] = swapped;
	}
}

/* --- sets of events --- */

bool rules_has_event(const struct rules_events *s, size_t event)
{
	return event / 64 < s->n && (s->w[event / 64] >> (event % 64) & 1);
}

static void events_copy(struct rules_events *ret, const struct rules_events *from)
{
	ret->n = from->n;
	memcpy(ret->w, from->w, from->n * sizeof(*from->w));
}

static void events_add(struct rules_events *s, size_t event)
{
	while (s->n <= event / 64)
		s->w[s->n++] = 0;
	s->w[event / 64] |= UINT64_C(1) << (event % 64);
}

static void events_unite(struct rules_events *s, const struct rules_events *other)
{
	while (s->n < other->n)
		s->w[s->n++] = 0;
	for (size_t i = 0; i < other->n; i++)
		s->w[i] |= other->w[i];
}

/* --- paths --- */

/* w->order stays sorted. */
static void order_path(struct rules_world *w, int p)
{
	struct path_key key, other;
	int at = p;

	path_key(&key, w->paths[p]);
	for (; at > 0; at--) {
		path_key(&other, w->paths[w->order[at - 1]]);
		if (path_key_compare(&key, &other) < 0)
			break;
		w->order[at] = w->order[at - 1];
	}
	w->order[at] = p;
}

int rules_path(struct rules_world *w, const char *path)
{
	size_t above = path_parent_length(path);
	int p;

	for (p = 0; p < w->n_paths; p++)
		if (!strcmp(w->paths[p], path))
			return p;
	if (w->n_paths == RULES_PATHS_MAX)
		rules_fail(w, "more than %d paths", RULES_PATHS_MAX);
	w->paths[p] = strdup(path);
	if (!w->paths[p])
		rules_fail(w, "no memory");
	w->n_paths++;
	order_path(w, p);
	w->parents[p] = RULES_NONE;
	w->depths[p] = 0;
	if (above) {
		cleanup_free char *parent = strndup(path, above);

		if (!parent)
			rules_fail(w, "no memory");
		w->parents[p] = rules_path(w, parent);
		w->depths[p] = w->depths[w->parents[p]] + 1;
	}
	if (w->depths[p] > w->depth_max)
		w->depth_max = w->depths[p];
	return p;
}

bool rules_is_below(const struct rules_world *w, int q, int p)
{
	for (q = w->parents[q]; q != RULES_NONE; q = w->parents[q])
		if (q == p)
			return true;
	return false;
}

/* --- a replica --- */

bool rules_live(const struct rules_replica *r, int p)
{
	return r->entries[p].present && r->entries[p].record.live;
}

bool rules_live_below(const struct rules_world *w, const struct rules_replica *r, int p)
{
	for (int q = 0; q < r->top; q++)
		if (rules_live(r, q) && rules_is_below(w, q, p))
			return true;
	return false;
}

uint8_t rules_kind(const struct rules_world *w, const struct rules_replica *r, int p)
{
	if (rules_live(r, p))
		return r->entries[p].record.kind;
	return rules_live_below(w, r, p) ? RECORD_DIRECTORY : 0;
}

uint64_t rules_content(const struct record *r)
{
	uint64_t n = 0;

	for (int i = 0; i < 6; i++) /* the digits that name conflict copies */
		n = n << 8 | r->content.root.bytes[i];
	return n;
}

int rules_number(const struct rules_world *w, const struct rules_replica *r)
{
	return (int)(r - w->replicas);
}

static void set_content(const struct rules_world *w, struct record *r, uint8_t kind, uint64_t content)
{
	r->kind = kind;
	r->content = (struct content){0};
	free(r->target);
	r->target = NULL;
	if (kind != RECORD_DIRECTORY)
		for (int i = 0; i < 6; i++)
			r->content.root.bytes[i] = (uint8_t)(content >> (40 - 8 * i));
	if (kind == RECORD_SYMLINK && asprintf(&r->target, "%" PRIu64, content) < 0)
		rules_fail(w, "no memory");
}

static void entry_clear(struct rules_entry *e)
{
	if (e->present)
		record_deinit(&e->record);
	e->present = false;
	e->hist.n = 0;
}

void rules_clear(struct rules_replica *r)
{
	while (r->top > 0)
		entry_clear(&r->entries[--r->top]);
	knowledge_deinit(&r->knowledge);
	r->own = r->last = (struct version_dot){0, 0};
	r->clock = r->changes = 0;
}

void rules_copy(struct rules_world *w, struct rules_replica *ret, const struct rules_replica *from)
{
	uint64_t changes = ret->changes;

	rules_clear(ret);
	ret->top = from->top;
	for (int p = 0; p < from->top; p++) {
		if (!from->entries[p].present)
			continue;
		ret->entries[p].present = true;
		events_copy(&ret->entries[p].hist, &from->entries[p].hist);
		check(w, record_copy(&ret->entries[p].record, &from->entries[p].record), "copy");
	}
	check(w, knowledge_copy(&ret->knowledge, &from->knowledge), "copy");
	ret->clock = from->clock;
	ret->own = from->own;
	ret->last = from->last;
	ret->changes = changes + 1;
}

/* Rights that this content was never given. */
static bool strayed(const struct rules_world *w, const struct rules_entry *e)
{
	const struct record *r = &e->record;

	if (!r->live || !(r->mode & PRIVILEGES) || r->kind == RECORD_DIRECTORY)
		return false;
	for (size_t i = 0; i < w->n_events; i++) {
		const struct rules_event *v = &w->events[i];

		if (v->live && (v->mode & PRIVILEGES) && v->kind == r->kind && v->content == rules_content(r) &&
			rules_has_event(&e->hist, i))
			return false;
	}
	return true;
}

/* Takes the record over. */
static void put(struct rules_world *w, struct rules_replica *r, int p, struct record *record, const struct rules_events *hist)
{
	struct rules_entry *e = &r->entries[p];

	if (e->present)
		record_deinit(&e->record);
	e->present = true;
	e->record = *record;
	events_copy(&e->hist, hist);
	*record = (struct record){0};
	if (p >= r->top)
		r->top = p + 1;
	r->changes++;
	w->strayed = w->strayed || strayed(w, e);
}

static void drop(struct rules_replica *r, int p)
{
	entry_clear(&r->entries[p]);
	r->changes++;
}

/* --- events --- */

static void next_dot(struct rules_world *w, struct rules_replica *r, const struct record *old)
{
	check(w, version_next_counter(r->clock, old ? &old->vv : NULL, &r->clock), "counter");
	if (!r->own.inc) { /* first event since the start */
		struct version_incarnation i = {
			.inc = rules_draw(w) | 1,
			.parent = r->last.inc,
			.from = r->last.counter,
			.replica = (uint64_t)(r - w->replicas) + 1,
		};

		check(w, version_lineage_add(w->lineage, &i), "lineage");
		r->own.inc = i.inc;
	}
	r->own.counter = r->clock;
	r->last = r->own;
	check(w, knowledge_event(&r->knowledge, r->own, w->lineage), "event");
}

static void one_dot(const struct rules_world *w, struct version_dots *d, struct version_dot dot)
{
	d->n = 0;
	check(w, version_dots_add(d, dot), "dots");
}

static void write_registers(const struct rules_world *w, struct record *r, const struct record *old, const struct rules_edit *e,
	struct version_dot dot)
{
	bool kept = old && old->live && old->kind == e->kind;

	if (e->change == RULES_STATE || e->change == RULES_DELETE) {
		one_dot(w, &r->dots, dot);
		version_dots_deinit(&r->lost);
	}
	if (e->change == RULES_DELETE) {
		struct record tombstone = {.vv = r->vv, .dots = r->dots};

		r->vv = (struct version_vector){0};
		r->dots = (struct version_dots){0};
		record_deinit(r);
		*r = tombstone;
		return;
	}
	r->live = true;
	if (e->change == RULES_STATE)
		set_content(w, r, e->kind, e->content);
	if (e->change == RULES_ATTRIBUTES || (e->change == RULES_STATE && !kept)) {
		r->mode = e->mode;
		one_dot(w, &r->adots, dot);
	}
	if (e->change == RULES_MTIME || e->change == RULES_STATE) {
		r->mtime_ns = e->mtime_ns;
		one_dot(w, &r->mdots, dot);
	}
	if (r->kind == RECORD_DIRECTORY)
		version_dots_deinit(&r->mdots);
}

static void note_event(struct rules_world *w, const struct rules_replica *r, int p, const struct rules_edit *e,
	const struct record *record, const struct rules_events *before)
{
	struct rules_event *v = &w->events[w->n_events];

	v->path = p;
	v->live = record->live;
	v->user = e->user;
	v->touch = e->change == RULES_ATTRIBUTES || e->change == RULES_MTIME;
	v->kind = record->kind;
	v->content = rules_content(record);
	v->mode = record->mode;
	v->dot = r->own;
	v->heard_by = 0;
	events_copy(&v->before, before);
	rules_trace(w, "r%d event %zu: %s %s kind %d content %" PRIu64 " mode %o dot %" PRIx64 ":%" PRIu64, rules_number(w, r),
		w->n_events, e->user ? "user" : "rule", w->paths[p], v->kind, v->content, v->mode, v->dot.inc, v->dot.counter);
	w->n_events++;
}

/*
 * Who heard of deletions. K alone does not say it where a tombstone was purged before others saw it: a session has nothing to tell of
 * the path, and K is joined at its end over what came there from a third replica meanwhile. The next session with who deleted it
 * takes it away; if that one is put back first, it had told nobody.
 */
static void hear(struct rules_world *w, const struct rules_replica *r)
{
	uint8_t me = (uint8_t)(1u << rules_number(w, r));

	for (size_t i = 0; w->rolls && i < w->n_events; i++) {
		struct rules_event *v = &w->events[i];

		if (v->live || !v->user || (v->heard_by & me) ||
			(rules_live(r, v->path) && !rules_has_event(&r->entries[v->path].hist, i)))
			continue;
		if (version_vector_has(knowledge_of(&r->knowledge, w->paths[v->path]), v->dot, w->lineage))
			v->heard_by |= me;
	}
}

void rules_event(struct rules_world *w, struct rules_replica *r, int p, const struct rules_edit *edit)
{
	struct rules_entry *entry = &r->entries[p];
	const struct record *old = entry->present ? &entry->record : NULL;
	struct record record = {0};
	struct rules_edit e = *edit;
	struct rules_events hist;

	if (w->n_events == RULES_EVENTS_MAX)
		rules_fail(w, "more than %d events", RULES_EVENTS_MAX);
	events_copy(&hist, &entry->hist);
	if (e.change == RULES_STATE && !e.content && e.kind != RECORD_DIRECTORY)
		e.content = 1000 + w->n_events;
	if (e.extra)
		events_unite(&hist, e.extra);
	if (old)
		check(w, record_copy(&record, old), "copy");
	next_dot(w, r, old);
	check(w, version_vector_raise(&record.vv, r->own, w->lineage), "vv");
	write_registers(w, &record, old, &e, r->own);
	note_event(w, r, p, &e, &record, &hist);
	events_add(&hist, w->n_events - 1);
	put(w, r, p, &record, &hist);
	hear(w, r);
}

void rules_delete(struct rules_world *w, struct rules_replica *r, int p, bool user)
{
	rules_event(w, r, p, &(struct rules_edit){.change = RULES_DELETE, .user = user});
}

void rules_restart(struct rules_replica *r)
{
	r->own = (struct version_dot){0, 0};
}

void rules_put_back(struct rules_world *w, struct rules_replica *r, const struct rules_replica *saved)
{
	uint8_t me = (uint8_t)(1u << rules_number(w, r));

	rules_copy(w, r, saved);
	rules_restart(r);
	for (size_t i = 0; i < w->n_events; i++)
		w->events[i].heard_by &= (uint8_t)~me;
	hear(w, r);
}

void rules_purge(struct rules_world *w, struct rules_replica *r)
{
	static const struct purge_policy at_once = {0};

	for (int p = 0; p < r->top; p++) {
		const struct rules_entry *e = &r->entries[p];

		if (e->present && !e->record.live &&
			purge_allowed(&e->record, 0, knowledge_of(&r->knowledge, w->paths[p]), &w->nobody, 0, &at_once, w->lineage))
			drop(r, p);
	}
}

/* Named by content: every replica finds the same name. An event even where it stands already: someone may be editing it. */
static void copy_aside(struct rules_world *w, struct rules_replica *r, int p)
{
	const struct record *o = &r->entries[p].record;
	const struct rules_edit e = {.change = RULES_STATE,
		.kind = o->kind,
		.content = rules_content(o),
		.mode = o->mode,
		.mtime_ns = o->mtime_ns,
		.extra = &r->entries[p].hist};

	for (unsigned n = 1;; n++) {
		cleanup_free char *name = conflict_path(w->paths[p], &o->content.root, n);
		int q = name ? rules_path(w, name) : RULES_NONE;

		if (q == RULES_NONE)
			rules_fail(w, "no memory");
		if (rules_live(r, q) && !record_same_state(&r->entries[q].record, o))
			continue;
		rules_event(w, r, q, &e);
		return;
	}
}

/* What stands is written once more. */
static void renew(struct rules_world *w, struct rules_replica *r, int p)
{
	const struct record *o = &r->entries[p].record;

	rules_event(w, r, p, &(struct rules_edit){.change = RULES_STATE,
				     .kind = o->kind,
				     .content = rules_content(o),
				     .mode = o->mode,
				     .mtime_ns = o->mtime_ns});
}

/* --- a side of a session --- */

struct side {
	struct rules_replica *me, *peer;
	struct knowledge theirs; /* as of the start */
	int todo[RULES_PATHS_MAX], n_todo, at;
	int batch;				   /* where the batch under way began in todo */
	int later[RULES_PATHS_MAX], n_later;	   /* deferred, in order */
	int under[RULES_PATHS_MAX], n_under;	   /* then those that land where something is in the way */
	bool skip[RULES_PATHS_MAX], skipped, last; /* last: the deferred are under way */
};

struct rules_session {
	struct rules_replica *a, *b;
	enum rules_order order;
	unsigned cut;
	bool started;
	struct side sides[2];
	size_t n;
	struct rules_session *next; /* spare */
};

static void skip(struct side *s, int p)
{
	s->skip[p] = s->skipped = true;
}

static void side_start(struct rules_world *w, struct rules_session *s, struct rules_replica *me, struct rules_replica *peer)
{
	struct side *side = &s->sides[s->n];

	if (w->deaf[rules_number(w, me)][rules_number(w, peer)])
		return;
	s->n++;
	side->me = me;
	side->peer = peer;
	side->theirs = (struct knowledge){0};
	side->n_todo = side->at = side->batch = side->n_later = side->n_under = 0;
	side->skipped = side->last = false;
	memset(side->skip, 0, sizeof(side->skip));
	check(w, knowledge_copy(&side->theirs, &peer->knowledge), "copy");
	for (int i = 0; s->order == RULES_WALK && i < w->n_paths; i++)
		if (me->entries[w->order[i]].present || peer->entries[w->order[i]].present)
			side->todo[side->n_todo++] = w->order[i];
	for (int depth = w->depth_max; s->order == RULES_SHUFFLED && depth >= 0; depth--) {
		int from = side->n_todo;

		for (int p = 0; p < w->n_paths; p++)
			if (w->depths[p] == depth && (me->entries[p].present || peer->entries[p].present))
				side->todo[side->n_todo++] = p;
		rules_shuffle(w, side->todo + from, side->n_todo - from);
	}
}

static bool skipped_below(const struct rules_world *w, const struct side *s, int p)
{
	for (int q = 0; s->skipped && q < s->me->top; q++)
		if (s->skip[q] && rules_live(s->me, q) && rules_is_below(w, q, p))
			return true;
	return false;
}

/* A live thing that is no directory has no children: it goes aside. */
static void mend_path(struct rules_world *w, struct side *s, int p)
{
	if (!rules_live(s->me, p) || s->me->entries[p].record.kind == RECORD_DIRECTORY || !rules_live_below(w, s->me, p) ||
		skipped_below(w, s, p))
		return;
	copy_aside(w, s->me, p);
	rules_delete(w, s->me, p, false);
}

static void mend_tree(struct rules_world *w, struct side *s, int p)
{
	for (; p != RULES_NONE; p = w->parents[p])
		mend_path(w, s, p);
}

static void side_decide(struct rules_world *w, const struct side *s, int p, struct decide_result *ret)
{
	const struct rules_entry *o = &s->me->entries[p], *t = &s->peer->entries[p];
	const struct decide_input in = {
		.ours = o->present ? &o->record : NULL,
		.theirs = t->present ? &t->record : NULL,
		.our_k = knowledge_of(&s->me->knowledge, w->paths[p]),
		.their_k = knowledge_of(&s->peer->knowledge, w->paths[p]),
		.lineage = w->lineage,
		.taker_loses = w->deaf[rules_number(w, s->peer)][rules_number(w, s->me)],
		.policy = &w->policy,
	};

	check(w, decide(&in, ret), "decide");
	if (ret->same_dot)
		rules_fail(w, "one dot names two states");
}

static void act(struct rules_world *w, struct side *s, int p, struct decide_result *d)
{
	struct rules_entry *o = &s->me->entries[p];
	struct rules_events hist;

	switch (d->action) {
	case DECIDE_NONE:
		break;
	case DECIDE_DELETE:
		rules_delete(w, s->me, p, false);
		break;
	case DECIDE_DROP:
		drop(s->me, p);
		break;
	default:
		events_copy(&hist, &o->hist);
		events_unite(&hist, &s->peer->entries[p].hist);
		if (d->action == DECIDE_ASIDE && o->record.kind != RECORD_DIRECTORY)
			copy_aside(w, s->me, p);
		put(w, s->me, p, &d->record, &hist);
		if (d->action == DECIDE_RENEW)
			renew(w, s->me, p);
	}
}

static bool has_record(const struct decide_result *d)
{
	return d->action == DECIDE_TAKE || d->action == DECIDE_MERGE || d->action == DECIDE_ASIDE || d->action == DECIDE_RENEW;
}

/* A thing that is no directory will stand there, and did not before. */
static bool lands(const struct decide_result *d)
{
	return has_record(d) && d->action != DECIDE_MERGE && d->action != DECIDE_RENEW && d->record.live && d->record.kind != RECORD_DIRECTORY;
}

static bool goes(const struct decide_result *d)
{
	return d->action == DECIDE_DELETE || (has_record(d) && !d->record.live) || lands(d);
}

/* False: skipped. */
static bool side_path(struct rules_world *w, struct side *s, int p, struct decide_result *d)
{
	if (d->action != DECIDE_NONE)
		rules_trace(w, "r%d from r%d: %s %s", rules_number(w, s->me), rules_number(w, s->peer), decide_action_name(d->action),
			w->paths[p]);
	if (d->action == DECIDE_WAIT || (goes(d) && skipped_below(w, s, p))) {
		skip(s, p);
		return false;
	}
	act(w, s, p, d);
	return d->action != DECIDE_NONE;
}

static void side_learn(struct rules_world *w, struct side *s)
{
	const char *skipped[RULES_PATHS_MAX];
	struct knowledge before = {0};
	size_t n = 0;

	for (int p = 0; s->skipped && p < w->n_paths; p++)
		if (s->skip[p])
			skipped[n++] = w->paths[p];
	check(w, knowledge_copy(&before, &s->me->knowledge), "copy");
	if (check(w, knowledge_learn(&s->me->knowledge, &s->theirs, skipped, n, s->me->own, w->lineage), "learn"))
		rules_fail(w, "more exceptions than paths");
	s->me->changes += !knowledge_equal(&before, &s->me->knowledge);
	knowledge_deinit(&before);
	hear(w, s->me);
}

/* --- shuffled --- */

static void shuffled_path(struct rules_world *w, struct rules_session *s, struct side *side)
{
	int p = side->todo[side->at++];
	struct decide_result d = {0};

	if (s->cut && rules_percent(w, s->cut)) {
		skip(side, p);
		return;
	}
	side_decide(w, side, p, &d);
	if (side_path(w, side, p, &d))
		mend_tree(w, side, p);
	decide_result_deinit(&d);
}

/* --- walked --- */

static bool object_above(const struct rules_world *w, const struct rules_replica *r, int p)
{
	for (p = w->parents[p]; p != RULES_NONE; p = w->parents[p])
		if (rules_live(r, p) && r->entries[p].record.kind != RECORD_DIRECTORY)
			return true;
	return false;
}

/* As decide_offer() in transfer/fetch.c: true where it was put off. */
static bool deferred(const struct rules_world *w, struct side *s, int p, const struct decide_result *d)
{
	bool deletes = rules_live(s->me, p) && (d->action == DECIDE_DELETE || (d->action == DECIDE_TAKE && !d->record.live));
	bool takes = (d->action == DECIDE_TAKE || d->action == DECIDE_ASIDE) && d->record.live;

	if (takes && object_above(w, s->me, p)) {
		s->under[s->n_under++] = p;
		return true;
	}
	if (!deletes && !(takes && d->record.kind != RECORD_DIRECTORY &&
				(rules_kind(w, s->me, p) == RECORD_DIRECTORY || rules_live_below(w, s->me, p))))
		return false;
	s->later[s->n_later++] = p;
	return true;
}

static void end_batch(struct rules_world *w, struct side *s)
{
	for (; s->batch < s->at; s->batch++)
		mend_tree(w, s, s->todo[s->batch]);
}

static void begin_last(struct side *s)
{
	memcpy(s->todo, s->later, (size_t)s->n_later * sizeof(*s->later));
	memcpy(s->todo + s->n_later, s->under, (size_t)s->n_under * sizeof(*s->under));
	s->n_todo = s->n_later + s->n_under;
	s->at = s->batch = 0;
	s->last = true;
}

static void walked_path(struct rules_world *w, struct side *s)
{
	int p = s->todo[s->at++];
	struct decide_result d = {0};

	side_decide(w, s, p, &d);
	if (s->last || !deferred(w, s, p, &d))
		side_path(w, s, p, &d);
	decide_result_deinit(&d);
	if (s->at == s->n_todo || rules_percent(w, BATCH_ENDS))
		end_batch(w, s);
	if (s->at == s->n_todo && !s->last)
		begin_last(s);
}

/* --- sessions --- */

/* Large, and little of it used: sessions are used again, and side_start() sets what is used. */
struct rules_session *rules_session_new(
	struct rules_world *w, struct rules_replica *a, struct rules_replica *b, enum rules_order order, unsigned cut)
{
	struct rules_session *s = w->spare ? w->spare : malloc(sizeof(*s));

	if (!s)
		rules_fail(w, "no memory");
	w->spare = w->spare ? s->next : NULL;
	s->n = 0;
	s->started = false;
	s->a = a;
	s->b = b;
	s->order = order;
	s->cut = cut;
	return s;
}

void rules_session_free(struct rules_world *w, struct rules_session *s)
{
	for (size_t i = 0; i < s->n; i++)
		knowledge_deinit(&s->sides[i].theirs);
	s->next = w->spare;
	w->spare = s;
}

bool rules_session_of(const struct rules_session *s, const struct rules_replica *r)
{
	return s->a == r || s->b == r;
}

bool rules_session_step(struct rules_world *w, struct rules_session *s)
{
	struct side *open[2];
	size_t n = 0;

	if (!s->started) {
		s->started = true;
		side_start(w, s, s->a, s->b);
		side_start(w, s, s->b, s->a);
	}
	for (size_t i = 0; i < s->n; i++)
		if (s->sides[i].at < s->sides[i].n_todo)
			open[n++] = &s->sides[i];
	if (n) {
		struct side *side = open[rules_below(w, n)];

		if (s->order == RULES_SHUFFLED)
			shuffled_path(w, s, side);
		else if (s->cut && rules_percent(w, s->cut)) {
			for (size_t i = 0; i < s->n; i++)
				end_batch(w, &s->sides[i]);
			return false;
		} else
			walked_path(w, side);
		return true;
	}
	for (size_t i = 0; i < s->n; i++)
		side_learn(w, &s->sides[i]);
	return false;
}

bool rules_session_finish(struct rules_world *w, struct rules_session *s)
{
	uint64_t before = s->a->changes + s->b->changes;
	bool idle = true;

	while (rules_session_step(w, s))
		;
	for (size_t i = 0; i < s->n; i++)
		idle = idle && !s->sides[i].skipped;
	idle = idle && before == s->a->changes + s->b->changes;
	rules_session_free(w, s);
	return idle;
}

void rules_session_pass(struct rules_world *w, const struct rules_replica *a, const struct rules_replica *b)
{
	int x = rules_number(w, a), y = rules_number(w, b);
	uint64_t draws = 0, sides = (uint64_t)!w->deaf[x][y] + !w->deaf[y][x];

	for (int depth = w->depth_max; depth >= 0; depth--) {
		uint64_t n = 0;

		for (int p = 0; p < w->n_paths; p++)
			n += w->depths[p] == depth && (a->entries[p].present || b->entries[p].present);
		draws += n ? 2 * n - 1 : 0; /* shuffling, and whose turn it is */
	}
	w->random += draws * sides * TEST_RANDOM_STEP;
}

/* --- a world --- */

static void clear(struct rules_world *w)
{
	for (size_t i = 0; i < w->n; i++)
		rules_clear(&w->replicas[i]);
	while (w->n_paths)
		free(w->paths[--w->n_paths]);
	version_lineage_free(w->lineage);
	w->lineage = NULL;
}

struct rules_world *rules_new(void)
{
	struct rules_world *w = calloc(1, sizeof(*w));

	if (!w)
		abort();
	return w;
}

void rules_free(struct rules_world *w)
{
	clear(w);
	while (w->spare) {
		struct rules_session *s = w->spare;

		w->spare = s->next;
		free(s);
	}
	free(w);
}

void rules_begin(struct rules_world *w, size_t n, uint64_t seed, uint64_t random)
{
	clear(w);
	w->seed = seed;
	w->random = random;
	w->n = n;
	memset(w->deaf, 0, sizeof(w->deaf));
	w->depth_max = 0;
	w->n_events = 0;
	w->policy = (struct decide_policy){.prefer = w->prefer};
	w->rolls = w->strayed = false;
	check(w, version_lineage_new(&w->lineage), "lineage");
}
