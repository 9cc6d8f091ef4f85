/*
 * tombstones/decide.c — see tombstones/decide.h and the table in DESIGN §3.
 *
 * Invariants:
 *  - The result depends on the two records, the two knowledges and the lineage only; both sides,
 * given the same, pick the same winner.
 *  - A result's vv is the join of both, so whoever holds it is past both versions.
 *  - Nothing live is deleted, or replaced without being put aside, unless the peer has seen the
 * events that wrote it.
 *  - Each dot stands or falls by itself: what a side has seen and does not name any more is gone,
 * whatever else wrote the same state or lost to it.
 *  - tests/unit/tombstones/model/ holds the same table as a Python program; both are compared on
 * random cases.
 */
#include "tombstones/decide.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#include "base/defect.h"
#include "base/error.h"

#define PRIVILEGES 06000 /* setuid, setgid */

/* Which record a register's value is taken from. BOTH: the values are equal, the dots are merged.
 */
enum pick { PICK_OURS, PICK_THEIRS, PICK_BOTH };

void decide_result_deinit(struct decide_result *r)
{
	record_deinit(&r->record);
	*r = (struct decide_result){0};
}

const char *decide_action_name(enum decide_action action)
{
	static const char *const names[] = {
		[DECIDE_NONE] = "none",
		[DECIDE_TAKE] = "take",
		[DECIDE_MERGE] = "merge",
		[DECIDE_ASIDE] = "aside",
		[DECIDE_DELETE] = "delete",
		[DECIDE_RENEW] = "renew",
		[DECIDE_DROP] = "drop",
		[DECIDE_WAIT] = "wait",
	};

	assert((size_t)action < ARRAY_SIZE(names));
	return names[action];
}

/* --- who has seen what --- */

static bool seen(const struct version_dots *dots, const struct version_vector *vv,
	const struct version_vector *k, const struct version_lineage *l)
{
	bool by_k[VERSION_ENTRIES_MAX], by_vv[VERSION_ENTRIES_MAX];
	bool all = true;

	assert(dots->n <= VERSION_ENTRIES_MAX);
	version_vector_has_each(k, dots, l, by_k);
	for (size_t i = 0; i < dots->n; i++)
		all = all && by_k[i];
	if ((all && !DEFECT(VECTORS_ONLY)) || !vv)
		return all;
	version_vector_has_each(vv, dots, l, by_vv);
	for (size_t i = 0; i < dots->n; i++)
		if ((!by_k[i] || DEFECT(VECTORS_ONLY)) && !by_vv[i])
			return false;
	return true;
}

static bool they_saw(const struct decide_input *in, const struct version_dots *ours)
{
	return seen(ours, &in->theirs->vv, in->their_k, in->lineage);
}

static bool we_saw(const struct decide_input *in, const struct version_dots *theirs)
{
	return seen(theirs, &in->ours->vv, in->our_k, in->lineage);
}

static bool intersect(const struct version_dots *a, const struct version_dots *b)
{
	for (size_t i = 0; i < a->n; i++)
		if (version_dots_contain(b, a->v[i]))
			return true;
	return false;
}

static int add_unless(struct version_dots *ret, const struct version_dots *from,
	const struct version_dots *both, const struct version_vector *vv,
	const struct version_lineage *l)
{
	bool known[VERSION_ENTRIES_MAX];

	assert(from->n <= VERSION_ENTRIES_MAX);
	version_vector_has_each(vv, from, l, known);
	for (size_t i = 0; i < from->n; i++) {
		int r;

		if (known[i] && !version_dots_contain(both, from->v[i]))
			continue;
		r = version_dots_add(ret, from->v[i]);
		if (r < 0)
			return r;
	}
	return 0;
}

/* (o∩t) ∪ (o not in t.vv) ∪ (t not in o.vv), or the union where that is empty: a dot that one side
 * knows and no longer names was written over there. Replaces *ret. */
static int merge_dots(const struct decide_input *in, const struct version_dots *o,
	const struct version_dots *t, struct version_dots *ret)
{
	struct version_dots merged = {0};
	int r;

	r = add_unless(&merged, o, t, &in->theirs->vv, in->lineage);
	if (r >= 0)
		r = add_unless(&merged, t, o, &in->ours->vv, in->lineage);
	if (r >= 0 && !merged.n) {
		r = version_dots_unite(&merged, o);
		if (r >= 0)
			r = version_dots_unite(&merged, t);
	}
	if (r < 0) {
		version_dots_deinit(&merged);
		return r;
	}
	version_dots_deinit(ret);
	*ret = merged;
	return 0;
}

/* --- the order among versions that know nothing of each other --- */

static int compare_i64(int64_t a, int64_t b)
{
	return (a > b) - (a < b);
}

static int compare_u64(uint64_t a, uint64_t b)
{
	return (a > b) - (a < b);
}

/* A directory's mtime is a hint that differs between replicas, and would order them differently. */
static int64_t age_key(const struct record *r)
{
	return r->live && r->kind != RECORD_DIRECTORY ? r->mtime_ns : INT64_MIN;
}

static size_t preference(const struct decide_input *in, const struct record *r)
{
	const struct version_incarnation *i =
		in->lineage ? version_lineage_find(in->lineage, version_dots_order(&r->dots).inc)
			    : NULL;
	size_t rank = 0;

	while (rank < in->policy->n_prefer && !(i && in->policy->prefer[rank] == i->replica))
		rank++;
	return rank;
}

/* Only decides where two states bear the same dots, which is a fault. */
static int compare_state(const struct record *a, const struct record *b)
{
	int c = (int)a->live - (int)b->live;

	if (!c)
		c = (int)a->kind - (int)b->kind;
	if (!c)
		c = hash_compare(&a->content.root, &b->content.root);
	if (!c)
		c = compare_u64(a->content.size, b->content.size);
	if (!c)
		c = (int)a->content.chunk_bits - (int)b->content.chunk_bits;
	if (!c)
		c = (int)a->content.height - (int)b->content.height;
	if (!c)
		c = strcmp(a->target ? a->target : "", b->target ? b->target : "");
	return c;
}

static bool ours_wins(const struct decide_input *in)
{
	const struct record *o = in->ours, *t = in->theirs;
	int c = 0;

	if (in->policy && in->policy->kind == DECIDE_NEWEST)
		c = compare_i64(age_key(o), age_key(t));
	else if (in->policy && in->policy->kind == DECIDE_PREFER)
		c = compare_u64(preference(in, t), preference(in, o)); /* a smaller rank wins */
	if (!c)
		c = version_order_compare(
			version_dots_order(&o->dots), version_dots_order(&t->dots));
	if (!c)
		c = compare_state(o, t);
	return c > 0;
}

/* --- registers --- */

/* The causally newer, else the order over dots, else the larger value. value: <0, 0, >0 as ours is
 * to theirs. */
static enum pick register_pick(const struct decide_input *in, const struct version_dots *o,
	const struct version_dots *t, int value)
{
	bool theirs_knows, ours_knows;
	int c;

	if (!value)
		return PICK_BOTH;
	theirs_knows = they_saw(in, o);
	ours_knows = we_saw(in, t);
	if (theirs_knows != ours_knows)
		return theirs_knows ? PICK_THEIRS : PICK_OURS;
	c = version_order_compare(version_dots_order(o), version_dots_order(t));
	if (!c)
		c = value;
	return c > 0 ? PICK_OURS : PICK_THEIRS;
}

static int compare_attributes(const struct record *a, const struct record *b)
{
	int c = compare_u64(a->mode, b->mode);

	if (!c)
		c = compare_u64(a->uid, b->uid);
	if (!c)
		c = compare_u64(a->gid, b->gid);
	return c;
}

/* res is a copy of `state`, which is ours or theirs; both are live and of one kind. */
static int settle_attributes(
	const struct decide_input *in, const struct record *state, struct decide_result *res)
{
	const struct record *o = in->ours, *t = in->theirs, *from;
	enum pick pick = register_pick(in, &o->adots, &t->adots, compare_attributes(o, t));

	if (pick == PICK_BOTH)
		return merge_dots(in, &o->adots, &t->adots, &res->record.adots);
	from = pick == PICK_OURS ? o : t;
	res->record.mode = from->mode;
	res->record.uid = from->uid;
	res->record.gid = from->gid;
	/* Given to other content, by someone who had not seen this one: it must not run with those
	 * rights. */
	if (from != state && (from->mode & PRIVILEGES) && !record_same_state(o, t) && !DEFECT(PRIVILEGES_STAY)) {
		res->record.mode &= (uint16_t)~PRIVILEGES;
		res->privileges_cleared = true;
	}
	return version_dots_copy(&res->record.adots, &from->adots);
}

/* Both have the same state. */
static int settle_mtime(const struct decide_input *in, struct decide_result *res)
{
	const struct record *o = in->ours, *t = in->theirs, *from;
	enum pick pick;

	if (o->kind == RECORD_DIRECTORY) {
		res->record.mtime_ns = o->mtime_ns;
		return 0;
	}
	pick = register_pick(in, &o->mdots, &t->mdots, compare_i64(o->mtime_ns, t->mtime_ns));
	if (pick == PICK_BOTH)
		return merge_dots(in, &o->mdots, &t->mdots, &res->record.mdots);
	from = pick == PICK_OURS ? o : t;
	res->record.mtime_ns = from->mtime_ns;
	return version_dots_copy(&res->record.mdots, &from->mdots);
}

/* The record that follows from both: this state, vv joined, attributes and mtime by their own
 * registers where the states leave it to them. */
static int make(
	const struct decide_input *in, const struct record *state, struct decide_result *res)
{
	const struct record *o = in->ours, *t = in->theirs;
	bool both_live = o->live && t->live;
	int r;

	r = record_copy(&res->record, state);
	if (r >= 0)
		r = version_vector_join(&res->record.vv, state == o ? &t->vv : &o->vv, in->lineage);
	if (r >= 0 && both_live && o->kind == t->kind)
		r = settle_attributes(in, state, res);
	if (r >= 0 && both_live && record_same_state(o, t))
		r = settle_mtime(in, res);
	if (r < 0)
		return r;
	res->attributes_moved = both_live && !record_same_attributes(&res->record, o);
	res->mtime_moved = both_live && res->record.kind != RECORD_DIRECTORY &&
			   res->record.mtime_ns != o->mtime_ns;
	return 0;
}

/* --- what is left of each side's dots --- */

/* Siblings in the sense of dotted version vectors: what stands at a path, and what lost to it. */
struct left {
	struct version_dots ours, theirs; /* of the dots of each state */
	struct version_dots lost;	  /* of what either side lost, less those */
	bool we_beat, they_beat;	  /* is any of that of what lost to ours, to theirs? */
};

static void left_deinit(struct left *l)
{
	version_dots_deinit(&l->ours);
	version_dots_deinit(&l->theirs);
	version_dots_deinit(&l->lost);
}

/* Adds to *ret which of `dots` are known neither to vv (may be NULL) nor to k, or named by `other`
 * (may be NULL). */
static int add_left(struct version_dots *ret, const struct version_dots *dots,
	const struct record *other, const struct version_vector *k, const struct version_lineage *l)
{
	bool by_k[VERSION_ENTRIES_MAX], by_vv[VERSION_ENTRIES_MAX]; /* large: the first dots->n are set */

	assert(dots->n <= VERSION_ENTRIES_MAX);
	version_vector_has_each(k, dots, l, by_k);
	if (other)
		version_vector_has_each(&other->vv, dots, l, by_vv);
	for (size_t i = 0; i < dots->n; i++) {
		bool named = other && (version_dots_contain(&other->dots, dots->v[i]) ||
					      version_dots_contain(&other->lost, dots->v[i]));
		int r;

		if (((by_k[i] && !(other && DEFECT(VECTORS_ONLY))) || (other && by_vv[i])) && !named)
			continue;
		r = version_dots_add(ret, dots->v[i]);
		if (r < 0)
			return r;
	}
	return 0;
}

static int left_find(const struct decide_input *in, struct left *ret)
{
	const struct record *o = in->ours, *t = in->theirs;
	struct version_dots beaten = {0};
	int r;

	r = add_left(&ret->ours, &o->dots, t, in->their_k, in->lineage);
	if (r >= 0)
		r = add_left(&ret->theirs, &t->dots, o, in->our_k, in->lineage);
	if (r >= 0)
		r = add_left(&beaten, &o->lost, t, in->their_k, in->lineage);
	if (r >= 0)
		r = add_left(&ret->lost, &t->lost, o, in->our_k, in->lineage);
	ret->we_beat = beaten.n;
	ret->they_beat = ret->lost.n;
	if (r >= 0)
		r = version_dots_unite(&ret->lost, &beaten);
	version_dots_deinit(&beaten);
	return r;
}

/* The record has the state that these dots wrote, and lost those. */
static int set_dots(
	struct record *r, const struct version_dots *dots, const struct version_dots *lost)
{
	struct version_dots without = {0};
	int e = version_dots_copy(&r->dots, dots);

	for (size_t i = 0; e >= 0 && i < lost->n; i++)
		if (!version_dots_contain(dots, lost->v[i]))
			e = version_dots_add(&without, lost->v[i]);
	if (e < 0) {
		version_dots_deinit(&without);
		return e;
	}
	version_dots_deinit(&r->lost);
	r->lost = without;
	return 0;
}

/* --- the rows of the table --- */

static bool ours_stays(enum decide_action action)
{
	return action == DECIDE_MERGE || action == DECIDE_RENEW;
}

static bool has_record(enum decide_action action)
{
	return ours_stays(action) || action == DECIDE_TAKE || action == DECIDE_ASIDE;
}

static int finish(struct decide_result *res, enum decide_action action)
{
	bool same_dot = res->same_dot;

	if (!has_record(action)) {
		decide_result_deinit(res);
		res->same_dot = same_dot;
	}
	res->action = action;
	return 0;
}

static int ours_absent(const struct decide_input *in, struct decide_result *res)
{
	const struct record *t = in->theirs;
	struct left left = {0};
	int r;

	if (seen(&t->dots, NULL, in->our_k, in->lineage))
		return finish(res, DECIDE_NONE);
	r = record_copy(&res->record, t);
	if (r >= 0 && t->live)
		r = add_left(&left.theirs, &t->dots, NULL, in->our_k, in->lineage);
	if (r >= 0 && t->live)
		r = add_left(&left.lost, &t->lost, NULL, in->our_k, in->lineage);
	if (r >= 0 && t->live)
		r = set_dots(&res->record, &left.theirs, &left.lost);
	left_deinit(&left);
	if (r < 0)
		return r;
	return finish(res, DECIDE_TAKE);
}

static int theirs_absent(const struct decide_input *in, struct decide_result *res)
{
	if (!seen(&in->ours->dots, NULL, in->their_k, in->lineage))
		return finish(res, DECIDE_NONE);
	if (in->ours->live)
		return finish(res, DECIDE_DELETE);
	return finish(res, version_vector_leq(&in->ours->vv, in->our_k, in->lineage) ? DECIDE_DROP
										     : DECIDE_NONE);
}

/*
 * Each was seen, and removed, at the other. Under orders that do not follow causality that may be a circle: ours was overwritten by
 * what lost to theirs, theirs by what lost to ours. All four would be gone, and nobody has deleted anything: one stays. Where what
 * removed ours did not lose, that may have been a deletion, and ours must not be back.
 */
static int none_left(const struct decide_input *in, const struct left *left, struct decide_result *res)
{
	bool circles = in->policy && in->policy->kind != DECIDE_KEEP_BOTH;
	bool we_may = circles && left->they_beat, they_may = circles && left->we_beat && !in->taker_loses;
	int r;

	if (!we_may && !they_may)
		return finish(res, DECIDE_DELETE);
	if (!we_may || (they_may && !ours_wins(in)))
		return finish(res, DECIDE_WAIT);
	r = make(in, in->ours, res);
	return r < 0 ? r : finish(res, DECIDE_RENEW);
}

/* One state, reached twice. */
static int same_state(
	const struct decide_input *in, const struct left *left, struct decide_result *res)
{
	const struct record *o = in->ours, *t = in->theirs;
	bool any = left->ours.n || left->theirs.n, all = !any || DEFECT(DOTS_TOGETHER);
	struct version_dots dots = {0};
	int r;

	if (!any && o->live)
		return none_left(in, left, res);
	r = version_dots_copy(&dots, all ? &o->dots : &left->ours);
	if (r >= 0)
		r = version_dots_unite(&dots, all ? &t->dots : &left->theirs);
	if (r >= 0)
		r = make(in, o, res);
	if (r >= 0)
		r = set_dots(&res->record, &dots, &left->lost);
	version_dots_deinit(&dots);
	if (r < 0)
		return r;
	return finish(res, DECIDE_MERGE);
}

/*
 * Does the peer's vector say more than we have noted? K is joined at a session's end only, and until then third parties are heard: what
 * the peer has seen removed must not come from them.
 */
static bool vector_news(const struct decide_input *in)
{
	return !version_vector_leq(&in->theirs->vv, &in->ours->vv, in->lineage) &&
	       !version_vector_leq(&in->theirs->vv, in->our_k, in->lineage);
}

/* Our state stays, with what is left of its dots. A joined vector of which K knows all is nothing to write down
 * where the peer has yet to take all of it from us. */
static int keep_ours(
	const struct decide_input *in, const struct left *left, struct decide_result *res)
{
	const struct record *o = in->ours;
	int r = make(in, o, res);
	bool news;

	if (r >= 0)
		r = set_dots(&res->record, &left->ours, &left->lost);
	if (r < 0)
		return r;
	news = res->attributes_moved || vector_news(in) || they_saw(in, &o->dots) ||
	       !version_dots_equal(&res->record.dots, &o->dots) ||
	       !version_dots_equal(&res->record.lost, &o->lost);
	return finish(res, news ? DECIDE_MERGE : DECIDE_NONE);
}

static int take_theirs(
	const struct decide_input *in, const struct left *left, struct decide_result *res)
{
	int r = make(in, in->theirs, res);

	if (r >= 0 && in->theirs->live)
		r = set_dots(&res->record, &left->theirs, &left->lost);
	if (r < 0)
		return r;
	return finish(res, DECIDE_TAKE);
}

static int stay_deleted(const struct decide_input *in, struct decide_result *res)
{
	int r;

	if (!vector_news(in))
		return finish(res, DECIDE_NONE);
	r = make(in, in->ours, res);
	return r < 0 ? r : finish(res, DECIDE_MERGE);
}

/* A modification that the deletion had not seen beats it. */
static int one_deleted(
	const struct decide_input *in, const struct left *left, struct decide_result *res)
{
	if (!in->ours->live && left->theirs.n && !DEFECT(TOMBSTONE_WINS))
		return take_theirs(in, left, res);
	if (!in->ours->live)
		return stay_deleted(in, res);
	if (left->ours.n && !DEFECT(TOMBSTONE_WINS))
		return keep_ours(in, left, res);
	if (we_saw(in, &in->theirs->dots))
		return finish(res, DECIDE_DELETE); /* that deletion is not the reason any more */
	return take_theirs(in, left, res);
}

/* The loser's side puts its own aside, the winner's side waits for that. */
static int conflict(const struct decide_input *in, struct left *left, struct decide_result *res)
{
	int r;

	if (ours_wins(in) && !in->taker_loses)
		return DEFECT(WINNER_JOINS) ? keep_ours(in, left, res) : finish(res, DECIDE_WAIT);
	r = DEFECT(NO_LOST) ? 0 : version_dots_unite(&left->lost, &left->ours);
	if (r >= 0)
		r = make(in, in->theirs, res);
	if (r >= 0)
		r = set_dots(&res->record, &left->theirs, &left->lost);
	if (r < 0)
		return r;
	return finish(res, DECIDE_ASIDE);
}

static int both_live(const struct decide_input *in, struct left *left, struct decide_result *res)
{
	bool ours_lost, theirs_lost;

	if (!left->ours.n && !left->theirs.n)
		return none_left(in, left, res);
	if (!left->ours.n)
		return take_theirs(in, left, res);
	if (!left->theirs.n)
		return keep_ours(in, left, res);
	ours_lost = version_dots_subset(&left->ours, &in->theirs->lost);
	theirs_lost = version_dots_subset(&left->theirs, &in->ours->lost);
	if (!ours_lost && !theirs_lost)
		return conflict(in, left, res);
	/* Resolved already; if each resolved it otherwise, the order decides. */
	if (ours_lost && (!theirs_lost || !ours_wins(in)))
		return take_theirs(in, left, res);
	return keep_ours(in, left, res);
}

static int decide_both(const struct decide_input *in, struct decide_result *res)
{
	const struct record *o = in->ours, *t = in->theirs;
	struct left left = {0};
	int r;

	r = left_find(in, &left);
	if (r < 0)
		; /* see below */
	else if (record_same_state(o, t))
		r = same_state(in, &left, res);
	else {
		/* A fault. Each names it, so that it is left on both sides: nothing is deleted for
		 * it. */
		res->same_dot = intersect(&o->dots, &t->dots);
		r = o->live && t->live ? both_live(in, &left, res) : one_deleted(in, &left, res);
	}
	left_deinit(&left);
	return r;
}

/* --- what only this replica wrote gives way --- */

static bool written_here(const struct decide_input *in, const struct version_dots *dots)
{
	for (size_t i = 0; i < dots->n; i++) {
		const struct version_incarnation *inc =
			in->lineage ? version_lineage_find(in->lineage, dots->v[i].inc) : NULL;

		if (!inc || inc->replica != in->revert)
			return false;
	}
	return dots->n > 0;
}

/* Ours is a version that lost, as in a conflict. */
static int give_way(const struct decide_input *in, struct decide_result *res)
{
	int r;

	decide_result_deinit(res);
	r = make(in, in->theirs, res);
	if (r >= 0 && in->ours->live && in->theirs->live)
		r = version_dots_unite(&res->record.lost, &in->ours->dots);
	if (r >= 0 && in->theirs->live)
		r = version_dots_unite(&res->record.lost, &in->ours->lost);
	return r < 0 ? r : finish(res, DECIDE_TAKE);
}

static int revert_attributes(const struct decide_input *in, struct decide_result *res)
{
	const struct record *o = in->ours, *t = in->theirs;

	if (record_same_attributes(&res->record, t) || !written_here(in, &o->adots))
		return 0;
	res->record.mode = t->mode;
	res->record.uid = t->uid;
	res->record.gid = t->gid;
	res->attributes_moved = !record_same_attributes(t, o);
	res->privileges_cleared = false;
	version_dots_deinit(&res->record.adots);
	return version_dots_copy(&res->record.adots, &t->adots);
}

static int revert_mtime(const struct decide_input *in, struct decide_result *res)
{
	const struct record *o = in->ours, *t = in->theirs;

	if (t->kind == RECORD_DIRECTORY || res->record.mtime_ns == t->mtime_ns || !written_here(in, &o->mdots))
		return 0;
	res->record.mtime_ns = t->mtime_ns;
	res->mtime_moved = t->mtime_ns != o->mtime_ns;
	version_dots_deinit(&res->record.mdots);
	return version_dots_copy(&res->record.mdots, &t->mdots);
}

static int revert(const struct decide_input *in, struct decide_result *res)
{
	const struct record *o = in->ours, *t = in->theirs;
	bool stays = res->action == DECIDE_NONE || ours_stays(res->action);
	bool same;
	int r = 0;

	if (!o || res->same_dot)
		return 0;
	if (!t)
		return stays && o->live && written_here(in, &o->dots) ? finish(res, DECIDE_DELETE) : 0;
	same = record_same_state(o, t);
	if (!same && (stays || res->action == DECIDE_ASIDE) && written_here(in, &o->dots))
		r = give_way(in, res);
	if (r < 0 || !o->live || !t->live || !has_record(res->action) || (!same && ours_stays(res->action)))
		return r;
	r = revert_attributes(in, res);
	return r < 0 ? r : revert_mtime(in, res);
}

/* --- what people see --- */

static bool shows_other(const struct record *a, const struct record *b)
{
	bool live = a && a->live;

	if (!live || !b || !b->live)
		return live != (b && b->live);
	return !record_same_state(a, b) || !record_same_attributes(a, b) ||
	       (a->kind != RECORD_DIRECTORY && a->mtime_ns != b->mtime_ns);
}

static bool differs(const struct decide_input *in, const struct decide_result *res)
{
	const struct record *after = has_record(res->action) ? &res->record : in->ours;

	return shows_other(res->action == DECIDE_DELETE ? NULL : after, in->theirs);
}

static int decide_other(const struct decide_input *in, struct decide_result *ret)
{
	struct decide_result res = {0};
	int r;

	if (!in->ours && !in->theirs)
		r = finish(&res, DECIDE_NONE);
	else if (!in->ours)
		r = ours_absent(in, &res);
	else if (!in->theirs)
		r = theirs_absent(in, &res);
	else
		r = decide_both(in, &res);
	if (r >= 0 && in->revert)
		r = revert(in, &res);
	/* Else a side that only takes, whose record stays ahead of the peer's, would write the same
	 * again in each round. */
	if (r >= 0 && res.action == DECIDE_MERGE && record_equal(&res.record, in->ours))
		r = finish(&res, DECIDE_NONE);
	if (r >= 0)
		res.differs = differs(in, &res);
	if (r < 0) {
		decide_result_deinit(&res);
		return r;
	}
	*ret = res;
	return 0;
}

int decide(const struct decide_input *in, struct decide_result *ret)
{
	if (!in->ours || !in->theirs || !record_equal(in->ours, in->theirs))
		return decide_other(in, ret);
	*ret = (struct decide_result){.action = DECIDE_NONE};
	return 0;
}
