/* merkle/match.c — see merkle/match.h. */
#include "merkle/match.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"

enum { SET_VV, SET_DOTS, SET_LOST, SET_ADOTS, SET_MDOTS };

enum { TAG_DELTAS = 1, TAG_SHAPE = 3, TAG_FULL = 5 };

/* --- digests --- */

void match_values(struct buf *b, const char *path, const struct record *r)
{
	put_string(b, path, strlen(path));
	record_values_put(b, r);
}

int match_digest(enum hash_algorithm algorithm, uint64_t seed, const struct buf *values, struct match_digest *ret)
{
	struct buf b = BUF_INIT;
	struct hash hash;
	int r = buf_error(values);

	put_u64(&b, seed);
	put_bytes(&b, values->data, values->len);
	if (r == 0)
		r = buf_error(&b);
	if (r == 0) {
		hash_bytes(algorithm, b.data, b.len, &hash);
		memcpy(ret->bytes, hash.bytes, sizeof(ret->bytes));
	}
	buf_deinit(&b);
	return r;
}

bool match_digest_equal(const struct match_digest *a, const struct match_digest *b)
{
	return memcmp(a->bytes, b->bytes, sizeof(a->bytes)) == 0;
}

/* --- shapes --- */

/* A vector as a set of dots. */
static struct version_dots as_dots(const struct version_vector *vv)
{
	return (struct version_dots){.v = vv->v, .n = vv->n};
}

static void sets_of(const struct record *r, struct version_dots ret[5])
{
	ret[SET_VV] = as_dots(&r->vv);
	ret[SET_DOTS] = r->dots;
	ret[SET_LOST] = r->lost;
	ret[SET_ADOTS] = r->adots;
	ret[SET_MDOTS] = r->kind == RECORD_DIRECTORY ? r->dots : r->mdots;
}

/* The number of an incarnation, which is added where there is room; MATCH_INCARNATIONS_MAX: none. */
static size_t number_of(struct match_table *t, uint64_t inc)
{
	for (size_t i = 0; i < t->n; i++)
		if (t->inc[i] == inc)
			return i;
	if (t->n == MATCH_INCARNATIONS_MAX || array_reserve(&t->inc, &t->cap, t->n + 1, sizeof(*t->inc)) < 0)
		return MATCH_INCARNATIONS_MAX;
	t->inc[t->n] = inc;
	return t->n++;
}

static int compare_dots(struct version_dot a, struct version_dot b)
{
	return a.inc != b.inc ? (a.inc > b.inc) - (a.inc < b.inc) : (a.counter > b.counter) - (a.counter < b.counter);
}

/* The different dots of all sets, ascending. Their number, or MATCH_DOTS_MAX + 1. */
static size_t collect_dots(const struct version_dots sets[5], struct version_dot ret[MATCH_DOTS_MAX])
{
	size_t n = 0;

	for (size_t i = 0; i < 5; i++)
		for (size_t j = 0; j < sets[i].n; j++) {
			struct version_dot dot = sets[i].v[j];
			size_t at = 0;

			while (at < n && compare_dots(ret[at], dot) < 0)
				at++;
			if (at < n && compare_dots(ret[at], dot) == 0)
				continue;
			if (n == MATCH_DOTS_MAX)
				return MATCH_DOTS_MAX + 1;
			memmove(ret + at + 1, ret + at, (n - at) * sizeof(*ret));
			ret[at] = dot;
			n++;
		}
	return n;
}

/* false: it has none, and is told in full. */
static bool shape_of(struct match_table *t, const struct record *r, struct match_shape *ret)
{
	struct version_dots sets[5];
	struct version_dot dots[MATCH_DOTS_MAX];
	size_t n;

	*ret = (struct match_shape){0};
	sets_of(r, sets);
	n = collect_dots(sets, dots);
	if (!n || n > MATCH_DOTS_MAX)
		return false;
	ret->n = (uint8_t)n;
	for (size_t i = 0; i < n; i++) {
		size_t number = number_of(t, dots[i].inc);

		if (number == MATCH_INCARNATIONS_MAX)
			return false;
		ret->inc[i] = (uint16_t)number;
		ret->counter[i] = dots[i].counter;
		for (size_t j = 0; j < 5; j++)
			ret->sets[j] |= (uint8_t)(version_dots_contain(&sets[j], dots[i]) << i);
	}
	return true;
}

static bool same_shape(const struct match_shape *a, const struct match_shape *b)
{
	return a->n == b->n && memcmp(a->sets, b->sets, sizeof(a->sets)) == 0 && memcmp(a->inc, b->inc, sizeof(a->inc)) == 0;
}

static bool follows(const struct match_shape *shape, const struct match_shape *last)
{
	if (!last->n || !same_shape(shape, last))
		return false;
	for (size_t i = 0; i < shape->n; i++)
		if (shape->counter[i] != last->counter[i] + 1)
			return false;
	return true;
}

/* --- writing --- */

void match_end(struct match_writer *w)
{
	if (w->run)
		put_varint(w->out, 2 * w->run);
	w->run = 0;
}

static void put_full(struct buf *b, const struct record *r)
{
	put_varint(b, TAG_FULL);
	version_vector_put(b, &r->vv);
	version_dots_put(b, &r->dots);
	version_dots_put(b, &r->lost);
	version_dots_put(b, &r->adots);
	version_dots_put(b, &r->mdots);
}

static void put_deltas(struct buf *b, const struct match_shape *shape, const struct match_shape *last)
{
	put_varint(b, TAG_DELTAS);
	for (size_t i = 0; i < shape->n; i++) {
		uint64_t delta = shape->counter[i] - last->counter[i];

		put_varint(b, delta << 1 ^ (delta >> 63 ? UINT64_MAX : 0));
	}
}

static void put_shape(struct buf *b, const struct match_shape *shape)
{
	put_varint(b, TAG_SHAPE);
	put_u8(b, shape->n);
	for (size_t i = 0; i < shape->n; i++)
		put_varint(b, shape->inc[i]);
	put_bytes(b, shape->sets, sizeof(shape->sets));
	for (size_t i = 0; i < shape->n; i++)
		put_varint(b, shape->counter[i]);
}

void match_add(struct match_writer *w, const struct record *r)
{
	struct match_shape shape;

	if (!shape_of(w->table, r, &shape)) {
		match_end(w);
		put_full(w->out, r);
		return;
	}
	if (follows(&shape, &w->last)) {
		w->run++;
	} else {
		match_end(w);
		if (w->last.n && same_shape(&shape, &w->last))
			put_deltas(w->out, &shape, &w->last);
		else
			put_shape(w->out, &shape);
	}
	w->last = shape;
}

/* --- reading --- */

static void get_shape(struct match_reader *r)
{
	struct match_shape *s = &r->last;

	*s = (struct match_shape){.n = get_u8(&r->c)};
	if (!s->n || s->n > MATCH_DOTS_MAX || !r->table->n) {
		cursor_fail(&r->c);
		return;
	}
	for (size_t i = 0; i < s->n; i++)
		s->inc[i] = (uint16_t)get_varint_max(&r->c, r->table->n - 1);
	get_bytes(&r->c, s->sets, sizeof(s->sets));
	for (size_t i = 0; i < 5; i++)
		if (s->sets[i] >> 1 >> (s->n - 1))
			cursor_fail(&r->c);
	for (size_t i = 0; i < s->n; i++)
		s->counter[i] = get_varint(&r->c);
}

static void get_deltas(struct match_reader *r)
{
	for (size_t i = 0; i < r->last.n; i++) {
		uint64_t zigzag = get_varint(&r->c);

		r->last.counter[i] += zigzag >> 1 ^ (zigzag & 1 ? UINT64_MAX : 0);
	}
}

static int dots_from(const struct match_reader *r, unsigned set, struct version_dots *ret)
{
	int e = 0;

	for (size_t i = 0; i < r->last.n && e == 0; i++) {
		struct version_dot dot = {r->table->inc[r->last.inc[i]], r->last.counter[i]};

		if (!(r->last.sets[set] >> i & 1))
			continue;
		if (!dot.inc || !dot.counter || dot.counter > VERSION_COUNTER_MAX)
			return -EBADMSG;
		e = version_dots_add(ret, dot);
	}
	return e;
}

static int vector_from(const struct match_reader *r, struct version_vector *ret)
{
	struct version_dots dots = {0};
	int e = dots_from(r, SET_VV, &dots);

	for (size_t i = 0; i < dots.n && e == 0; i++) /* one entry for an incarnation */
		e = i && dots.v[i].inc == dots.v[i - 1].inc ? -EBADMSG : version_vector_raise(ret, dots.v[i], NULL);
	version_dots_deinit(&dots);
	return e;
}

static int apply_shape(const struct match_reader *r, struct record *in_out)
{
	int e = vector_from(r, &in_out->vv);

	if (e == 0)
		e = dots_from(r, SET_DOTS, &in_out->dots);
	if (e == 0)
		e = dots_from(r, SET_LOST, &in_out->lost);
	if (e == 0)
		e = dots_from(r, SET_ADOTS, &in_out->adots);
	if (e == 0 && in_out->kind != RECORD_DIRECTORY)
		e = dots_from(r, SET_MDOTS, &in_out->mdots);
	return e;
}

static void clear_versions(struct record *r)
{
	version_vector_deinit(&r->vv);
	version_dots_deinit(&r->dots);
	version_dots_deinit(&r->lost);
	version_dots_deinit(&r->adots);
	version_dots_deinit(&r->mdots);
}

static void get_full(struct cursor *c, struct record *ret)
{
	version_vector_get_from(c, &ret->vv);
	version_dots_get(c, &ret->dots);
	version_dots_get(c, &ret->lost);
	version_dots_get(c, &ret->adots);
	version_dots_get(c, &ret->mdots);
}

int match_next(struct match_reader *r, struct record *in_out)
{
	uint64_t tag = r->run ? 0 : get_varint(&r->c);
	bool full = false;
	int e = 0;

	clear_versions(in_out);
	if (tag && !(tag & 1))
		r->run = tag / 2;
	if (r->run) {
		r->run--;
		for (size_t i = 0; i < r->last.n; i++)
			r->last.counter[i]++;
	} else if (tag == TAG_DELTAS) {
		get_deltas(r);
	} else if (tag == TAG_SHAPE) {
		get_shape(r);
	} else if (tag == TAG_FULL) {
		full = true;
		get_full(&r->c, in_out);
	} else {
		cursor_fail(&r->c);
	}
	if (r->c.failed || (!full && !r->last.n))
		return -EBADMSG;
	if (!full)
		e = apply_shape(r, in_out);
	if (e == -E2BIG || e == -EOVERFLOW)
		e = -EBADMSG;
	return e == 0 && !record_valid(in_out) ? -EBADMSG : e;
}

int match_finish(const struct match_reader *r)
{
	return r->run ? -EBADMSG : cursor_finish(&r->c);
}
