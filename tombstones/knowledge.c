/*
 * tombstones/knowledge.c — see tombstones/knowledge.h.
 *
 * Invariants: exceptions are sorted by path, without doubles; none covers K (what covers K is no
 * exception). A vector too low is always safe (a path is looked at again), one too high loses
 * files: where in doubt, an exception stays.
 */
#include "tombstones/knowledge.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/defect.h"
#include "base/error.h"
#include "merkle/path.h"

#define ENTRY_BYTES_MAX (8 + 10) /* of a vector, encoded */
#define COUNT_BYTES_MAX 3	 /* varint of up to VERSION_ENTRIES_MAX or a path's length */
#define ROOM_BYTES \
	(64 * 1024) /* left for our own events after learning: an entry for each vector */

static void exception_deinit(struct knowledge_exception *e)
{
	free(e->path);
	version_vector_deinit(&e->vector);
	*e = (struct knowledge_exception){0};
}

static void exceptions_free(struct knowledge_exception *e, size_t n)
{
	for (size_t i = 0; i < n; i++)
		exception_deinit(&e[i]);
	free(e);
}

void knowledge_deinit(struct knowledge *k)
{
	version_vector_deinit(&k->k);
	exceptions_free(k->exceptions, k->n);
	*k = (struct knowledge){0};
}

/* Append; the order is the caller's. Takes the vector over on success. */
static int append(struct knowledge *k, const char *path, struct version_vector *vector)
{
	char *copy;
	int r = array_reserve(&k->exceptions, &k->cap, k->n + 1, sizeof(*k->exceptions));

	if (r < 0)
		return r;
	copy = strdup(path);
	if (!copy)
		return -ENOMEM;
	k->exceptions[k->n++] = (struct knowledge_exception){.path = copy, .vector = *vector};
	*vector = (struct version_vector){0};
	return 0;
}

int knowledge_copy(struct knowledge *ret, const struct knowledge *from)
{
	struct knowledge copy = {0};
	int r = version_vector_copy(&copy.k, &from->k);

	for (size_t i = 0; r >= 0 && i < from->n; i++) {
		struct version_vector v = {0};

		r = version_vector_copy(&v, &from->exceptions[i].vector);
		if (r >= 0)
			r = append(&copy, from->exceptions[i].path, &v);
		version_vector_deinit(&v);
	}
	if (r < 0) {
		knowledge_deinit(&copy);
		return r;
	}
	knowledge_deinit(ret);
	*ret = copy;
	return 0;
}

/* Position of the first exception at or after path. */
static size_t position(const struct knowledge *k, const char *path)
{
	size_t low = 0, high = k->n;

	while (low < high) {
		size_t mid = low + (high - low) / 2;

		if (strcmp(k->exceptions[mid].path, path) < 0)
			low = mid + 1;
		else
			high = mid;
	}
	return low;
}

static bool excepted_at(const struct knowledge *k, size_t i, const char *path)
{
	return i < k->n && strcmp(k->exceptions[i].path, path) == 0;
}

const struct version_vector *knowledge_of(const struct knowledge *k, const char *path)
{
	size_t i = position(k, path);

	return excepted_at(k, i, path) ? &k->exceptions[i].vector : &k->k;
}

static size_t vector_bytes(const struct version_vector *v)
{
	return COUNT_BYTES_MAX + v->n * ENTRY_BYTES_MAX;
}

static size_t exception_bytes(const char *path, const struct version_vector *v)
{
	return COUNT_BYTES_MAX + strlen(path) + vector_bytes(v);
}

static size_t bytes_of(const struct knowledge *k)
{
	size_t n = COUNT_BYTES_MAX + vector_bytes(&k->k);

	for (size_t i = 0; i < k->n; i++)
		n += exception_bytes(k->exceptions[i].path, &k->exceptions[i].vector);
	return n;
}

/* Our event before this one, as K knows it; {0,0}: there was none. */
static struct version_dot event_before(
	const struct knowledge *k, struct version_dot dot, const struct version_lineage *l)
{
	uint64_t counter = version_vector_get(&k->k, dot.inc);
	const struct version_incarnation *i;

	if (counter)
		return (struct version_dot){dot.inc, counter};
	i = l ? version_lineage_find(l, dot.inc) : NULL;
	if (i && i->parent && i->from)
		return (struct version_dot){i->parent, i->from};
	return (struct version_dot){0, 0};
}

int knowledge_event(struct knowledge *k, struct version_dot dot, const struct version_lineage *l)
{
	struct version_dot before = event_before(k, dot, l);
	int r = version_vector_raise(&k->k, dot, l);

	for (size_t i = 0; r >= 0 && i < k->n; i++) {
		struct version_vector *v = &k->exceptions[i].vector;

		if (!before.inc || version_vector_has(v, before, l))
			r = version_vector_raise(v, dot, l);
	}
	return r < 0 ? r : 0;
}

int knowledge_forget(struct knowledge *k, const char *path)
{
	struct version_vector empty = {0};
	size_t i = position(k, path);
	struct knowledge_exception last;
	int r;

	if (excepted_at(k, i, path)) {
		version_vector_deinit(&k->exceptions[i].vector);
		k->exceptions[i].vector = empty;
		return 0;
	}
	if (!k->k.n) /* nothing is known of any path */
		return 0;
	if (k->n >= KNOWLEDGE_EXCEPTIONS_MAX ||
		bytes_of(k) + exception_bytes(path, &empty) > KNOWLEDGE_BYTES_MAX - ROOM_BYTES)
		return -ENOSPC;
	r = append(k, path, &empty);
	if (r < 0)
		return r;
	last = k->exceptions[k->n - 1];
	memmove(&k->exceptions[i + 1], &k->exceptions[i], (k->n - 1 - i) * sizeof(*k->exceptions));
	k->exceptions[i] = last;
	return 0;
}

/* --- learning --- */

struct learning {
	const struct knowledge *me, *peer;
	const char **skipped; /* sorted copy; the strings are the caller's */
	size_t n_skipped;
	struct version_dot own;
	const struct version_lineage *l;
	size_t at_me, at_peer, at_skipped; /* how far the three lists are merged */
	size_t bytes;			   /* of what was made so far */
	struct knowledge made;
};

static int compare_paths(const void *a, const void *b)
{
	return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* What the path would know from now on; an exception if that is less than K. */
static int learn_path(struct learning *s, const char *path, const struct version_vector *mine,
	const struct version_vector *theirs, bool skip)
{
	struct version_vector v = {0};
	int r = 0;

	if (skip && version_vector_leq(
			    &s->made.k, mine, s->l)) /* the common case of many skipped: no copy */
		return 0;
	r = version_vector_copy(&v, mine);
	if (r >= 0 && !skip)
		r = version_vector_join(&v, theirs, s->l);
	/* not for a path that was forgotten; see knowledge_event */
	if (r >= 0 && s->own.inc &&
		(version_vector_has(mine, s->own, s->l) ||
			!version_vector_has(&s->me->k, s->own, s->l)))
		r = version_vector_raise(&v, s->own, s->l);
	if (r >= 0 && !version_vector_leq(&s->made.k, &v, s->l)) {
		s->bytes += exception_bytes(path, &v);
		if (s->made.n >= KNOWLEDGE_EXCEPTIONS_MAX ||
			s->bytes > KNOWLEDGE_BYTES_MAX - ROOM_BYTES)
			r = KNOWLEDGE_FULL;
		else
			r = append(&s->made, path, &v);
	}
	version_vector_deinit(&v);
	return r;
}

/* The least path that is still to be done, NULL at the end. */
static const char *next_path(const struct learning *s)
{
	const char *candidates[3] = {
		s->at_me < s->me->n ? s->me->exceptions[s->at_me].path : NULL,
		s->at_peer < s->peer->n ? s->peer->exceptions[s->at_peer].path : NULL,
		s->at_skipped < s->n_skipped ? s->skipped[s->at_skipped] : NULL,
	};
	const char *least = NULL;

	for (size_t i = 0; i < ARRAY_SIZE(candidates); i++)
		if (candidates[i] && (!least || strcmp(candidates[i], least) < 0))
			least = candidates[i];
	return least;
}

static int learn_all(struct learning *s)
{
	const char *path;
	int r = version_vector_copy(&s->made.k, &s->me->k);

	if (r >= 0)
		r = version_vector_join(&s->made.k, &s->peer->k, s->l);
	s->bytes = bytes_of(&s->made);
	while (r == 0 && (path = next_path(s))) {
		const struct version_vector *mine = &s->me->k, *theirs = &s->peer->k;
		bool skip = false;

		if (excepted_at(s->me, s->at_me, path))
			mine = &s->me->exceptions[s->at_me++].vector;
		if (excepted_at(s->peer, s->at_peer, path))
			theirs = &s->peer->exceptions[s->at_peer++].vector;
		if (DEFECT(PEER_EXCEPTIONS_IGNORED))
			theirs = &s->peer->k;
		for (; s->at_skipped < s->n_skipped && !strcmp(s->skipped[s->at_skipped], path);
			s->at_skipped++)
			skip = !DEFECT(SKIPPED_IS_LEARNT);
		if (DEFECT(EXCEPTION_FORGOTTEN) && !skip)
			mine = &s->me->k;
		r = learn_path(s, path, mine, theirs, skip);
	}
	return r;
}

int knowledge_learn(struct knowledge *me, const struct knowledge *peer, const char *const *skipped,
	size_t n_skipped, struct version_dot own, const struct version_lineage *l)
{
	cleanup_free const char **sorted = NULL;
	struct learning s = {.me = me, .peer = peer, .n_skipped = n_skipped, .own = own, .l = l};
	int r;

	if (!me->n && !peer->n && !n_skipped)
		return version_vector_join(&me->k, &peer->k, l);
	if (n_skipped) {
		sorted = calloc(n_skipped, sizeof(*sorted));
		if (!sorted)
			return -ENOMEM;
		memcpy(sorted, skipped, n_skipped * sizeof(*sorted));
		qsort(sorted, n_skipped, sizeof(*sorted), compare_paths);
	}
	s.skipped = sorted;
	r = learn_all(&s);
	if (r != 0) {
		knowledge_deinit(&s.made);
		return r;
	}
	knowledge_deinit(me);
	*me = s.made;
	return 0;
}

/* --- comparing, encoding --- */

bool knowledge_equal(const struct knowledge *a, const struct knowledge *b)
{
	if (a->n != b->n || !version_vector_equal(&a->k, &b->k))
		return false;
	for (size_t i = 0; i < a->n; i++)
		if (strcmp(a->exceptions[i].path, b->exceptions[i].path) != 0 ||
			!version_vector_equal(&a->exceptions[i].vector, &b->exceptions[i].vector))
			return false;
	return true;
}

void knowledge_put(struct buf *b, const struct knowledge *k)
{
	version_vector_put(b, &k->k);
	put_varint(b, k->n);
	for (size_t i = 0; i < k->n; i++) {
		put_string(b, k->exceptions[i].path, strlen(k->exceptions[i].path));
		version_vector_put(b, &k->exceptions[i].vector);
	}
}

static void get_exception(struct cursor *c, struct knowledge *ret)
{
	cleanup_free char *path = get_text(c, FILE_PATH_BYTES_MAX);
	struct version_vector v = {0};

	version_vector_get_from(c, &v);
	if (c->failed || !path_valid(path) ||
		(ret->n && strcmp(ret->exceptions[ret->n - 1].path, path) >= 0) ||
		append(ret, path, &v) < 0)
		cursor_fail(c);
	version_vector_deinit(&v);
}

void knowledge_get(struct cursor *c, struct knowledge *ret)
{
	size_t before = cursor_left(c);
	uint64_t n;

	version_vector_get_from(c, &ret->k);
	n = get_varint_max(c, KNOWLEDGE_EXCEPTIONS_MAX);
	while (n-- && !c->failed) {
		get_exception(c, ret);
		if (before - cursor_left(c) > KNOWLEDGE_BYTES_MAX)
			cursor_fail(c);
	}
}
