/*
 * merkle/version.c — see merkle/version.h.
 *
 * Lineage is a forest. Each node has its depth and, beside its parent, a jump to a farther ancestor
 * (Myers' skew-binary pointers), so that "is i above j, and where did j's line leave it" is
 * answered in O(log depth). Whether a vector implies a dot is asked through a struct implier, which
 * for long vectors first marks all their ancestors: no vector that a peer may send costs more than
 * the lineage is large.
 *
 * Invariants: a node never changes (but for was_left) and never moves once added; nodes[] is parents first; dots and
 * vectors are sorted; no set or vector grows past VERSION_ENTRIES_MAX.
 */
#include "merkle/version.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/defect.h"
#include "base/error.h"
#include "base/random.h"

#define XXH_INLINE_ALL /* of 8 bytes: cheaper than the call */
#include <xxhash.h>

#define SLOTS_MIN 16
#define ENTRY_BYTES_MIN 9 /* encoded: u64 and a varint */

/* --- lineage --- */

struct node {
	struct version_incarnation i;
	const struct node *parent; /* NULL: a first incarnation */
	const struct node *jump;   /* an ancestor; itself for a first incarnation */
	const struct node *first;  /* of its line */
	uint32_t depth;		   /* 0 for a first incarnation */
	uint32_t position;	   /* in nodes[] */
	bool was_left;		   /* it is somebody's parent: under the lock, as it becomes that later */
};

struct version_lineage {
	pthread_rwlock_t lock; /* guards all below; found nodes are used without it */
	struct node **nodes;   /* in order of adding */
	size_t n, cap;
	struct node **slots; /* by the hash of the incarnation, or behind; NULL: free. At most half of them are taken */
	size_t n_slots;	     /* a power of two, or 0 */
	uint64_t seed;	     /* of that hash: ids come from peers */
};

static void lock_read(const struct version_lineage *l)
{
	/* taking the lock does not change what the caller sees as const */
	if (pthread_rwlock_rdlock((pthread_rwlock_t *)&l->lock))
		abort();
}

static void unlock(const struct version_lineage *l)
{
	if (pthread_rwlock_unlock((pthread_rwlock_t *)&l->lock))
		abort();
}

/* Where it is, or belongs. There are slots. */
static struct node **slot_of(const struct version_lineage *l, uint64_t inc)
{
	size_t at = (size_t)XXH3_64bits_withSeed(&inc, sizeof(inc), l->seed);

	while (l->slots[at & (l->n_slots - 1)] && l->slots[at & (l->n_slots - 1)]->i.inc != inc)
		at++;
	return &l->slots[at & (l->n_slots - 1)];
}

static struct node *find(const struct version_lineage *l, uint64_t inc)
{
	return l->n ? *slot_of(l, inc) : NULL;
}

static int slots_reserve(struct version_lineage *l, size_t need)
{
	size_t n = l->n_slots ? l->n_slots : SLOTS_MIN;
	struct node **slots;

	while (n / 2 < need)
		n *= 2;
	if (n == l->n_slots)
		return 0;
	slots = calloc(n, sizeof(struct node *));
	if (!slots)
		return -ENOMEM;
	free(l->slots);
	l->slots = slots;
	l->n_slots = n;
	for (size_t i = 0; i < l->n; i++)
		*slot_of(l, l->nodes[i]->i.inc) = l->nodes[i];
	return 0;
}

int version_lineage_new(struct version_lineage **ret)
{
	struct version_lineage *l = calloc(1, sizeof(*l));
	int r;

	if (!l)
		return -ENOMEM;
	r = pthread_rwlock_init(&l->lock, NULL);
	if (r) {
		free(l);
		return -r;
	}
	l->seed = random_id();
	*ret = l;
	return 0;
}

void version_lineage_free(struct version_lineage *l)
{
	if (!l)
		return;
	for (size_t i = 0; i < l->n; i++)
		free(l->nodes[i]);
	free(l->nodes);
	free(l->slots);
	pthread_rwlock_destroy(&l->lock);
	free(l);
}

static bool incarnation_valid(const struct version_incarnation *i)
{
	if (!i->inc || i->inc == i->parent || i->from > VERSION_COUNTER_MAX)
		return false;
	return i->parent || !i->from;
}

static void link_node(struct node *node, const struct node *parent)
{
	node->parent = parent;
	if (!parent) {
		node->jump = node->first = node;
		return;
	}
	node->depth = parent->depth + 1;
	node->first = parent->first;
	if (parent->depth - parent->jump->depth == parent->jump->depth - parent->jump->jump->depth)
		node->jump = parent->jump->jump;
	else
		node->jump = parent;
}

static int add_locked(struct version_lineage *l, const struct version_incarnation *i)
{
	const struct node *known = find(l, i->inc);
	struct node *parent = i->parent ? find(l, i->parent) : NULL, *node;
	int r;

	if (known)
		return known->i.parent == i->parent && known->i.from == i->from &&
				       known->i.replica == i->replica
			       ? VERSION_KNOWN
			       : -EBADMSG;
	if (i->parent && !parent)
		return -EBADMSG;
	if (l->n >= VERSION_LINEAGE_MAX)
		return -ENOSPC;
	r = array_reserve(&l->nodes, &l->cap, l->n + 1, sizeof(struct node *));
	if (r >= 0)
		r = slots_reserve(l, l->n + 1);
	if (r < 0)
		return r;
	node = calloc(1, sizeof(*node));
	if (!node)
		return -ENOMEM;
	node->i = *i;
	node->position = (uint32_t)l->n;
	link_node(node, parent);
	*slot_of(l, i->inc) = node;
	l->nodes[l->n++] = node;
	if (parent)
		parent->was_left = true;
	return 0;
}

int version_lineage_add(struct version_lineage *l, const struct version_incarnation *i)
{
	int r;

	if (!incarnation_valid(i))
		return -EBADMSG;
	if (pthread_rwlock_wrlock(&l->lock))
		abort();
	r = add_locked(l, i);
	unlock(l);
	return r;
}

const struct version_incarnation *version_lineage_find(
	const struct version_lineage *l, uint64_t inc)
{
	const struct node *node;

	lock_read(l);
	node = find(l, inc);
	unlock(l);
	return node ? &node->i : NULL;
}

size_t version_lineage_count(const struct version_lineage *l)
{
	size_t n;

	lock_read(l);
	n = l->n;
	unlock(l);
	return n;
}

const struct version_incarnation *version_lineage_at(
	const struct version_lineage *l, size_t position)
{
	const struct node *node;

	lock_read(l);
	node = position < l->n ? l->nodes[position] : NULL;
	unlock(l);
	return node ? &node->i : NULL;
}

/* Does any event of j imply event n of i? Nodes may be NULL (not in the lineage: no line known). */
static bool node_implies(const struct node *j, const struct node *i, uint64_t n)
{
	if (!j || !i || j->first != i->first || j->depth <= i->depth)
		return false;
	while (j->depth > i->depth + 1)
		j = j->jump->depth > i->depth ? j->jump : j->parent;
	return j->parent == i && (n <= j->i.from || DEFECT(BRANCH_IGNORED));
}

bool version_lineage_implies(const struct version_lineage *l, uint64_t j, struct version_dot dot)
{
	const struct node *from, *to;

	lock_read(l);
	from = find(l, j);
	to = find(l, dot.inc);
	unlock(l);
	return node_implies(from, to, dot.counter);
}

/* --- does a vector imply a dot: prepared for many questions to one vector --- */

#define IMPLIER_SMALL 256

struct implier {
	const struct version_lineage *l; /* read-locked; NULL: nothing is implied */
	const struct version_dot *v;
	size_t n, questions; /* questions: about so many will be asked */
	bool prepared; /* once a dot is asked for that may be implied: most are of lines that nobody left */
	const struct node *nodes[IMPLIER_SMALL]; /* of the entries, if n fits */
	uint64_t *left; /* by position: 1 + the highest counter at which a line of the vector left
			   the incarnation, 0 if none did; else NULL */
};

static void implier_begin(struct implier *m, const struct version_lineage *l,
	const struct version_dot *v, size_t n, size_t questions)
{
	m->l = n && questions ? l : NULL;
	m->v = v;
	m->n = n;
	m->questions = questions;
	m->prepared = false;
	m->left = NULL;
	if (m->l)
		lock_read(l);
}

static void implier_mark(struct implier *m)
{
	for (size_t k = 0; k < m->n; k++) {
		const struct node *node = find(m->l, m->v[k].inc);

		for (; node && node->parent; node = node->parent) {
			uint64_t *left = &m->left[node->parent->position];
			bool been_here = *left;

			if (*left < node->i.from + 1)
				*left = node->i.from + 1;
			if (been_here)
				break;
		}
	}
}

static void implier_prepare(struct implier *m)
{
	m->prepared = true;
	if (m->n > 1 && m->questions > 1 && (m->n > IMPLIER_SMALL || m->questions > IMPLIER_SMALL))
		m->left = calloc(m->l->n ? m->l->n : 1, sizeof(*m->left));
	if (m->left)
		implier_mark(m);
	else if (m->n <= IMPLIER_SMALL)
		for (size_t k = 0; k < m->n; k++)
			m->nodes[k] = find(m->l, m->v[k].inc);
}

static bool implier_implies(struct implier *m, struct version_dot dot)
{
	const struct node *i = m->l ? find(m->l, dot.inc) : NULL;

	if (!i || !i->was_left)
		return false;
	if (!m->prepared)
		implier_prepare(m);
	if (m->left)
		return m->left[i->position] > dot.counter;
	for (size_t k = 0; k < m->n; k++) /* past IMPLIER_SMALL: one question, or no memory */
		if (node_implies(m->n <= IMPLIER_SMALL ? m->nodes[k] : find(m->l, m->v[k].inc), i,
			    dot.counter))
			return true;
	return false;
}

static void implier_end(struct implier *m)
{
	if (m->l)
		unlock(m->l);
	free(m->left);
}

/* --- sorted arrays of dots, of which sets and vectors are made --- */

static int dot_compare(struct version_dot a, struct version_dot b)
{
	if (a.inc != b.inc)
		return a.inc < b.inc ? -1 : 1;
	return a.counter < b.counter ? -1 : a.counter > b.counter;
}

/* Position of the first entry that is not before the dot. */
static size_t lower_bound(const struct version_dot *v, size_t n, struct version_dot dot)
{
	size_t low = 0;

	while (low < n) {
		size_t middle = low + (n - low) / 2;

		if (dot_compare(v[middle], dot) < 0)
			low = middle + 1;
		else
			n = middle;
	}
	return low;
}

static int entries_copy(struct version_dot **v, size_t *n, size_t *cap,
	const struct version_dot *from, size_t from_n)
{
	int r = array_reserve(v, cap, from_n, sizeof(**v));

	if (r < 0)
		return r;
	if (from_n)
		memmove(*v, from, from_n * sizeof(**v));
	*n = from_n;
	return 0;
}

static int entries_insert(
	struct version_dot **v, size_t *n, size_t *cap, size_t at, struct version_dot dot)
{
	int r;

	if (*n >= VERSION_ENTRIES_MAX)
		return -E2BIG;
	r = array_reserve(v, cap, *n + 1, sizeof(**v));
	if (r < 0)
		return r;
	memmove(*v + at + 1, *v + at, (*n - at) * sizeof(**v));
	(*v)[at] = dot;
	(*n)++;
	return 0;
}

static bool entries_equal(
	const struct version_dot *a, size_t a_n, const struct version_dot *b, size_t b_n)
{
	if (a_n != b_n)
		return false;
	for (size_t i = 0; i < a_n; i++)
		if (a[i].inc != b[i].inc || a[i].counter != b[i].counter)
			return false;
	return true;
}

/* Counters go on across incarnations: none has an event at or before where it left its parent. */
static bool node_counted(const struct node *node, uint64_t counter)
{
	return node && counter > node->i.from;
}

static bool entries_known(const struct version_dot *v, size_t n, const struct version_lineage *l)
{
	bool known = true;

	lock_read(l);
	for (size_t i = 0; i < n && known; i++)
		known = node_counted(find(l, v[i].inc), v[i].counter);
	unlock(l);
	return known;
}

static void entries_put(struct buf *b, const struct version_dot *v, size_t n)
{
	assert(n <= VERSION_ENTRIES_MAX);
	put_varint(b, n);
	for (size_t i = 0; i < n; i++) {
		assert(v[i].inc && v[i].counter && v[i].counter <= VERSION_COUNTER_MAX);
		put_u64(b, v[i].inc);
		put_varint(b, v[i].counter);
	}
}

/* `vector`: one entry for an incarnation. On failure nothing is handed out. */
static void entries_get(
	struct cursor *c, struct version_dot **ret, size_t *ret_n, size_t *ret_cap, bool vector)
{
	size_t n = get_varint_max(c, VERSION_ENTRIES_MAX), cap = 0;
	struct version_dot *v cleanup_free = NULL;

	if (n > cursor_left(c) / ENTRY_BYTES_MIN || array_reserve(&v, &cap, n, sizeof(*v)) < 0)
		cursor_fail(c);
	for (size_t i = 0; i < n && !c->failed; i++) {
		v[i].inc = get_u64(c);
		v[i].counter = get_varint_max(c, VERSION_COUNTER_MAX);
		if (!v[i].inc || !v[i].counter || (i && dot_compare(v[i - 1], v[i]) >= 0) ||
			(i && vector && v[i - 1].inc == v[i].inc))
			cursor_fail(c);
	}
	if (c->failed)
		return;
	*ret = steal(v);
	*ret_n = n;
	*ret_cap = cap;
}

/* --- dots --- */

int version_dots_copy(struct version_dots *ret, const struct version_dots *from)
{
	return entries_copy(&ret->v, &ret->n, &ret->cap, from->v, from->n);
}

int version_dots_add(struct version_dots *d, struct version_dot dot)
{
	size_t at = lower_bound(d->v, d->n, dot);

	assert(dot.inc && dot.counter);
	if (dot.counter > VERSION_COUNTER_MAX)
		return -EOVERFLOW;
	if (at < d->n && !dot_compare(d->v[at], dot))
		return 0;
	return entries_insert(&d->v, &d->n, &d->cap, at, dot);
}

int version_dots_unite(struct version_dots *d, const struct version_dots *other)
{
	struct version_dots merged = {0};
	size_t i = 0, k = 0;
	int r;

	if (version_dots_subset(other, d))
		return 0;
	r = array_reserve(&merged.v, &merged.cap, d->n + other->n, sizeof(*merged.v));
	if (r < 0)
		return r;
	while (i < d->n || k < other->n) {
		int order = i == d->n ? 1 : k == other->n ? -1 : dot_compare(d->v[i], other->v[k]);

		merged.v[merged.n++] = order <= 0 ? d->v[i] : other->v[k];
		i += order <= 0;
		k += order >= 0;
	}
	if (merged.n > VERSION_ENTRIES_MAX) {
		version_dots_deinit(&merged);
		return -E2BIG;
	}
	version_dots_deinit(d);
	*d = merged;
	return 0;
}

bool version_dots_contain(const struct version_dots *d, struct version_dot dot)
{
	size_t at = lower_bound(d->v, d->n, dot);

	return at < d->n && !dot_compare(d->v[at], dot);
}

bool version_dots_subset(const struct version_dots *a, const struct version_dots *b)
{
	if (a->n > b->n)
		return false;
	for (size_t i = 0; i < a->n; i++)
		if (!version_dots_contain(b, a->v[i]))
			return false;
	return true;
}

bool version_dots_equal(const struct version_dots *a, const struct version_dots *b)
{
	return entries_equal(a->v, a->n, b->v, b->n);
}

struct version_dot version_dots_order(const struct version_dots *d)
{
	struct version_dot greatest = {0};

	for (size_t i = 0; i < d->n; i++)
		if (version_order_compare(d->v[i], greatest) > 0)
			greatest = d->v[i];
	return greatest;
}

int version_order_compare(struct version_dot a, struct version_dot b)
{
	if (a.counter != b.counter)
		return a.counter < b.counter ? -1 : 1;
	return a.inc < b.inc ? -1 : a.inc > b.inc;
}

bool version_dots_known(const struct version_dots *d, const struct version_lineage *l)
{
	return entries_known(d->v, d->n, l);
}

/* --- vectors --- */

int version_vector_copy(struct version_vector *ret, const struct version_vector *from)
{
	return entries_copy(&ret->v, &ret->n, &ret->cap, from->v, from->n);
}

void version_vector_normalise(struct version_vector *v, const struct version_lineage *l)
{
	bool keep[VERSION_ENTRIES_MAX * 2];
	struct implier m;
	size_t kept = 0;

	assert(v->n <= ARRAY_SIZE(keep));
	if (!l || v->n < 2)
		return;
	/* all questions before the first change: the entries are what is asked */
	implier_begin(&m, l, v->v, v->n, v->n);
	for (size_t i = 0; i < v->n; i++)
		keep[i] = !implier_implies(&m, v->v[i]);
	implier_end(&m);
	for (size_t i = 0; i < v->n; i++)
		if (keep[i])
			v->v[kept++] = v->v[i];
	v->n = kept;
}

int version_vector_raise(
	struct version_vector *v, struct version_dot dot, const struct version_lineage *l)
{
	struct version_vector one = {.v = &dot, .n = 1};

	assert(dot.inc && dot.counter);
	if (dot.counter > VERSION_COUNTER_MAX)
		return -EOVERFLOW;
	return version_vector_join(v, &one, l);
}

/* May grow past the limit, since normal form may take entries away again. */
static int join_merge(
	struct version_vector *ret, const struct version_vector *a, const struct version_vector *b)
{
	size_t i = 0, k = 0;
	int r = array_reserve(&ret->v, &ret->cap, a->n + b->n, sizeof(*ret->v));

	if (r < 0)
		return r;
	while (i < a->n || k < b->n) {
		bool take_a = k == b->n || (i < a->n && a->v[i].inc <= b->v[k].inc);
		bool take_b = i == a->n || (k < b->n && b->v[k].inc <= a->v[i].inc);
		struct version_dot dot = take_a ? a->v[i] : b->v[k];

		if (take_b && b->v[k].counter > dot.counter)
			dot = b->v[k];
		ret->v[ret->n++] = dot;
		i += take_a;
		k += take_b;
	}
	return 0;
}

int version_vector_join(struct version_vector *v, const struct version_vector *other,
	const struct version_lineage *l)
{
	struct version_vector joined = {0};
	bool covered = true;
	int r;

	for (size_t i = 0; i < other->n && covered; i++)
		covered = version_vector_get(v, other->v[i].inc) >= other->v[i].counter;
	if (covered) {
		version_vector_normalise(v, l);
		return 0;
	}
	r = join_merge(&joined, v, other);
	if (r < 0)
		return r;
	version_vector_normalise(&joined, l);
	if (joined.n > VERSION_ENTRIES_MAX) {
		version_vector_deinit(&joined);
		return -E2BIG;
	}
	version_vector_deinit(v);
	*v = joined;
	return 0;
}

uint64_t version_vector_get(const struct version_vector *v, uint64_t inc)
{
	size_t at = lower_bound(v->v, v->n, (struct version_dot){.inc = inc});

	return at < v->n && v->v[at].inc == inc ? v->v[at].counter : 0;
}

bool version_vector_has(
	const struct version_vector *v, struct version_dot dot, const struct version_lineage *l)
{
	struct implier m;
	bool implied;

	if (version_vector_get(v, dot.inc) >= dot.counter)
		return true;
	implier_begin(&m, l, v->v, v->n, 1);
	implied = implier_implies(&m, dot);
	implier_end(&m);
	return implied;
}

void version_vector_has_each(const struct version_vector *v, const struct version_dots *d,
	const struct version_lineage *l, bool *ret_has)
{
	struct implier m;
	bool begun = false;

	for (size_t i = 0; i < d->n; i++) {
		ret_has[i] = version_vector_get(v, d->v[i].inc) >= d->v[i].counter;
		if (ret_has[i])
			continue;
		if (!begun)
			implier_begin(&m, l, v->v, v->n, d->n);
		begun = true;
		ret_has[i] = implier_implies(&m, d->v[i]);
	}
	if (begun)
		implier_end(&m);
}

bool version_vector_leq(const struct version_vector *a, const struct version_vector *b,
	const struct version_lineage *l)
{
	struct implier m;
	bool leq = true, begun = false;

	for (size_t i = 0; i < a->n && leq; i++) {
		if (version_vector_get(b, a->v[i].inc) >= a->v[i].counter)
			continue;
		if (!begun)
			implier_begin(&m, l, b->v, b->n, a->n);
		begun = true;
		leq = implier_implies(&m, a->v[i]);
	}
	if (begun)
		implier_end(&m);
	return leq;
}

bool version_vector_equal(const struct version_vector *a, const struct version_vector *b)
{
	return entries_equal(a->v, a->n, b->v, b->n);
}

uint64_t version_vector_max_counter(const struct version_vector *v)
{
	uint64_t max = 0;

	for (size_t i = 0; i < v->n; i++)
		if (v->v[i].counter > max)
			max = v->v[i].counter;
	return max;
}

int version_next_counter(uint64_t last, const struct version_vector *seen, uint64_t *ret)
{
	uint64_t before = seen && !DEFECT(NO_LAMPORT_STEP) ? version_vector_max_counter(seen) : 0;

	if (before < last)
		before = last;
	if (before >= VERSION_COUNTER_MAX)
		return -EOVERFLOW;
	*ret = before + 1;
	return 0;
}

bool version_vector_known(const struct version_vector *v, const struct version_lineage *l)
{
	return entries_known(v->v, v->n, l);
}

/* --- codec --- */

void version_dots_put(struct buf *b, const struct version_dots *d)
{
	entries_put(b, d->v, d->n);
}

void version_dots_get(struct cursor *c, struct version_dots *ret)
{
	*ret = (struct version_dots){0};
	entries_get(c, &ret->v, &ret->n, &ret->cap, false);
}

void version_vector_put(struct buf *b, const struct version_vector *v)
{
	entries_put(b, v->v, v->n);
}

void version_vector_get_from(struct cursor *c, struct version_vector *ret)
{
	*ret = (struct version_vector){0};
	entries_get(c, &ret->v, &ret->n, &ret->cap, true);
}

void version_skip(struct cursor *c)
{
	for (uint64_t n = get_varint_max(c, VERSION_ENTRIES_MAX); n && !c->failed; n--) {
		cursor_step(c, sizeof(uint64_t));
		get_varint(c);
	}
}

void version_incarnation_put(struct buf *b, const struct version_incarnation *i)
{
	assert(incarnation_valid(i));
	put_u64(b, i->inc);
	put_u64(b, i->parent);
	put_varint(b, i->from);
	put_u64(b, i->replica);
}

void version_incarnation_get(struct cursor *c, struct version_incarnation *ret)
{
	ret->inc = get_u64(c);
	ret->parent = get_u64(c);
	ret->from = get_varint(c);
	ret->replica = get_u64(c);
	if (incarnation_valid(ret) && !c->failed)
		return;
	cursor_fail(c);
	*ret = (struct version_incarnation){0};
}
