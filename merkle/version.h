/*
 * merkle/version.h — dots, sets of dots, version vectors, and the lineage of incarnations.
 *
 * A replica counts its events under an incarnation, a random 64-bit id; a dot (incarnation, counter) names
 * one event. A vector maps incarnations to counters and stands for all events up to them. Lineage: an
 * incarnation names its parent and the last counter that its owner itself had counted there; it is immutable.
 * (j, m) implies (i, n) if i is an ancestor of j and n <= where that line left i. Vectors are in normal form:
 * no entry that another entry implies. Dots are never pruned. DESIGN §3; after Dynamo's version vectors and
 * Preguiça's dots, with Lamport counters.
 */
#ifndef MERKLE_VERSION_H
#define MERKLE_VERSION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include "base/buf.h"

#define VERSION_ENTRIES_MAX 4096 /* of a vector or a set, on the wire and on disk */
#define VERSION_LINEAGE_MAX 65536 /* incarnations known to one folder */
#define VERSION_COUNTER_MAX (UINT64_MAX >> 1)

struct version_dot {
	uint64_t inc;	  /* incarnation; never 0 */
	uint64_t counter; /* from 1 */
};

/* Sorted by (inc, counter), without doubles. Zero-initialised is empty. */
struct version_dots {
	struct version_dot *v; /* owned */
	size_t n, cap;
};

/* What grows a set or a vector returns 0, -ENOMEM, or -E2BIG where it would have more than VERSION_ENTRIES_MAX entries;
 * -EOVERFLOW for a counter beyond VERSION_COUNTER_MAX (a peer's counters drive the Lamport step). It is then unchanged. */

/* Sorted by inc, one entry each. Zero-initialised is empty. The same layout, another meaning. */
struct version_vector {
	struct version_dot *v;
	size_t n, cap;
};

/* --- lineage --- */

struct version_incarnation {
	uint64_t inc;	  /* this one */
	uint64_t parent;  /* 0: none */
	uint64_t from;	  /* the last counter its owner had counted under the parent */
	uint64_t replica; /* whose it is: a claim, for showing and for conflict policies */
};

/* A growing table of incarnations; parents are added before children. Thread-safe (a read-write lock inside); found
 * entries never move and live as long as the table. */
struct version_lineage;
int version_lineage_new(struct version_lineage **ret);
void version_lineage_free(struct version_lineage *l);
/* 0 added, VERSION_KNOWN already there and equal; -EBADMSG: known otherwise, its parent unknown, or itself 0;
 * (or its own parent, or `from` without a parent or beyond VERSION_COUNTER_MAX); -ENOSPC at VERSION_LINEAGE_MAX. */
enum version_outcome { VERSION_KNOWN = 1 };
int version_lineage_add(struct version_lineage *l, const struct version_incarnation *i);
const struct version_incarnation *version_lineage_find(const struct version_lineage *l, uint64_t inc); /* or NULL */
size_t version_lineage_count(const struct version_lineage *l);
/* In order of adding (parents first). NULL past the end. */
const struct version_incarnation *version_lineage_at(const struct version_lineage *l, size_t position);
/* Does any event of incarnation j imply the dot? (false for the dot's own incarnation) O(log of the line's length). */
bool version_lineage_implies(const struct version_lineage *l, uint64_t j, struct version_dot dot);

/* --- dots --- */

static inline void version_dots_deinit(struct version_dots *d)
{
	if (d->v)
		free(d->v);
	*d = (struct version_dots){0};
}
int version_dots_copy(struct version_dots *ret, const struct version_dots *from); /* ret is replaced */
int version_dots_add(struct version_dots *d, struct version_dot dot);
int version_dots_unite(struct version_dots *d, const struct version_dots *other);
bool version_dots_contain(const struct version_dots *d, struct version_dot dot);
bool version_dots_subset(const struct version_dots *a, const struct version_dots *b); /* a ⊆ b */
bool version_dots_equal(const struct version_dots *a, const struct version_dots *b);
/* The greatest by (counter, inc): the total order among versions that know nothing of each other. {0,0} if empty. */
struct version_dot version_dots_order(const struct version_dots *d);
int version_order_compare(struct version_dot a, struct version_dot b); /* by counter, then inc */

/* --- vectors; `l` may be NULL for plain vectors without lineage --- */

static inline void version_vector_deinit(struct version_vector *v)
{
	if (v->v)
		free(v->v);
	*v = (struct version_vector){0};
}
int version_vector_copy(struct version_vector *ret, const struct version_vector *from);
/* Drop what other entries imply. Functions here do it by themselves; needed for a vector that was decoded. */
void version_vector_normalise(struct version_vector *v, const struct version_lineage *l);
/* Raise the entry of dot.inc to at least dot.counter, and restore normal form. */
int version_vector_raise(struct version_vector *v, struct version_dot dot, const struct version_lineage *l);
int version_vector_join(struct version_vector *v, const struct version_vector *other, const struct version_lineage *l);
uint64_t version_vector_get(const struct version_vector *v, uint64_t inc); /* 0 if absent */
/* Is the dot known: by its own entry, or implied by another's? */
bool version_vector_has(const struct version_vector *v, struct version_dot dot, const struct version_lineage *l);
/* The same for each dot of a set, prepared once: ret_has has d->n elements. O(entries + dots) lookups. */
void version_vector_has_each(const struct version_vector *v, const struct version_dots *d,
	const struct version_lineage *l, bool *ret_has);
/* a <= b: all that a knows, b knows. */
bool version_vector_leq(const struct version_vector *a, const struct version_vector *b, const struct version_lineage *l);
bool version_vector_equal(const struct version_vector *a, const struct version_vector *b);
uint64_t version_vector_max_counter(const struct version_vector *v);
/* The Lamport step: *ret is the counter of an event of somebody whose last one was `last`, and which descends from `seen` (NULL:
 * from nothing): above both. -EOVERFLOW beyond VERSION_COUNTER_MAX, *ret is unchanged then. */
int version_next_counter(uint64_t last, const struct version_vector *seen, uint64_t *ret);
/* Are all incarnations named in the vector (or set) in the lineage, with counters that they can have: above where they
 * left their parent? */
bool version_vector_known(const struct version_vector *v, const struct version_lineage *l);
bool version_dots_known(const struct version_dots *d, const struct version_lineage *l);

/* --- codec: varint count, then (u64 inc, varint counter) in ascending order. Decoding enforces order, limits,
 * counters in 1…VERSION_COUNTER_MAX; it fails the cursor otherwise. What *ret held is not freed; after a failure it is
 * empty. --- */

void version_dots_put(struct buf *b, const struct version_dots *d);
void version_dots_get(struct cursor *c, struct version_dots *ret);
void version_vector_put(struct buf *b, const struct version_vector *v);
void version_vector_get_from(struct cursor *c, struct version_vector *ret);
void version_skip(struct cursor *c); /* over a set or a vector, looking at its length only */
void version_incarnation_put(struct buf *b, const struct version_incarnation *i);
void version_incarnation_get(struct cursor *c, struct version_incarnation *ret);

#endif
