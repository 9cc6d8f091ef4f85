/*
 * tombstones/members.c — see tombstones/members.h. Sorted by replica id, without doubles.
 */
#include "tombstones/members.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"

#define MEMBER_EXCEPTED 1
#define MEMBER_RETIRED 2

static void member_deinit(struct member *m)
{
	free(m->name);
	version_vector_deinit(&m->k);
	*m = (struct member){0};
}

void members_deinit(struct members *m)
{
	for (size_t i = 0; i < m->n; i++)
		member_deinit(&m->v[i]);
	free(m->v);
	*m = (struct members){0};
}

static size_t position(const struct members *m, uint64_t replica)
{
	size_t low = 0, high = m->n;

	while (low < high) {
		size_t mid = low + (high - low) / 2;

		if (m->v[mid].replica < replica)
			low = mid + 1;
		else
			high = mid;
	}
	return low;
}

struct member *members_find(struct members *m, uint64_t replica)
{
	size_t i = position(m, replica);

	return i < m->n && m->v[i].replica == replica ? &m->v[i] : NULL;
}

int members_add(struct members *m, uint64_t replica, struct member **ret)
{
	size_t i = position(m, replica);
	char *name;
	int r;

	if (i < m->n && m->v[i].replica == replica) {
		*ret = &m->v[i];
		return 0;
	}
	if (m->n >= MEMBERS_MAX)
		return -ENOSPC;
	r = array_reserve(&m->v, &m->cap, m->n + 1, sizeof(*m->v));
	if (r < 0)
		return r;
	name = strdup("");
	if (!name)
		return -ENOMEM;
	memmove(&m->v[i + 1], &m->v[i], (m->n - i) * sizeof(*m->v));
	m->v[i] = (struct member){.replica = replica, .name = name};
	m->n++;
	*ret = &m->v[i];
	return 0;
}

void members_put(struct buf *b, const struct members *m)
{
	put_varint(b, m->n);
	for (size_t i = 0; i < m->n; i++) {
		const struct member *x = &m->v[i];

		put_u64(b, x->replica);
		put_string(b, x->name ? x->name : "", x->name ? strlen(x->name) : 0);
		put_u8(b, (uint8_t)((x->excepted ? MEMBER_EXCEPTED : 0) |
				    (x->retired ? MEMBER_RETIRED : 0)));
		put_u64(b, (uint64_t)x->seen_ns);
		version_vector_put(b, &x->k);
	}
}

static void get_member(struct cursor *c, struct members *ret)
{
	struct member x = {0};
	uint8_t flags;

	x.replica = get_u64(c);
	x.name = get_text(c, MEMBER_NAME_BYTES_MAX);
	flags = get_u8(c);
	x.excepted = flags & MEMBER_EXCEPTED;
	x.retired = flags & MEMBER_RETIRED;
	x.seen_ns = (int64_t)get_u64(c);
	version_vector_get_from(c, &x.k);
	if (c->failed || !x.replica || (flags & ~(MEMBER_EXCEPTED | MEMBER_RETIRED)) ||
		(ret->n && ret->v[ret->n - 1].replica >= x.replica) ||
		array_reserve(&ret->v, &ret->cap, ret->n + 1, sizeof(*ret->v)) < 0) {
		cursor_fail(c);
		member_deinit(&x);
		return;
	}
	ret->v[ret->n++] = x;
}

void members_get(struct cursor *c, struct members *ret)
{
	uint64_t n = get_varint_max(c, MEMBERS_MAX);

	while (n-- && !c->failed)
		get_member(c, ret);
}
