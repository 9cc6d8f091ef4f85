/* tombstones/places.c — see tombstones/places.h. */
#include "tombstones/places.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"

#define PLACES_VERSION 2
#define PLACES_VERSION_MIN 1 /* had no seq */

void places_deinit(struct places *p)
{
	for (size_t i = 0; i < p->n; i++)
		free(p->v[i].address);
	free(p->v);
	*p = (struct places){0};
}

static struct place_met *find(const struct places *p, const char *address)
{
	for (size_t i = 0; i < p->n; i++)
		if (strcmp(p->v[i].address, address) == 0)
			return &p->v[i];
	return NULL;
}

const struct place_met *places_find(const struct places *p, const char *address)
{
	return find(p, address);
}

static void forget_oldest(struct places *p)
{
	size_t oldest = 0;

	for (size_t i = 1; i < p->n; i++)
		if (p->v[i].seen_ns < p->v[oldest].seen_ns)
			oldest = i;
	free(p->v[oldest].address);
	memmove(&p->v[oldest], &p->v[oldest + 1], (p->n - 1 - oldest) * sizeof(*p->v));
	p->n--;
}

int places_note(struct places *p, const char *address, uint64_t replica, int64_t now_ns, uint64_t seq)
{
	struct place_met *met = find(p, address);
	int r;

	if (!*address || strlen(address) > PLACE_BYTES_MAX)
		return 0;
	if (!met) {
		struct place_met new = {.address = strdup(address)};

		if (p->n >= PLACES_MAX)
			forget_oldest(p);
		r = new.address ? array_reserve(&p->v, &p->cap, p->n + 1, sizeof(*p->v)) : -ENOMEM;
		if (r < 0) {
			free(new.address);
			return r;
		}
		met = &p->v[p->n++];
		*met = new;
	}
	met->replica = replica;
	met->seen_ns = now_ns;
	met->seq = seq;
	return 0;
}

int places_read(struct index_txn *t, struct places *ret)
{
	struct buf b cleanup(buf_deinit) = BUF_INIT;
	struct places read = {0};
	struct cursor c;
	uint64_t n;
	uint8_t version;
	int r = index_meta_get(t, INDEX_META_PLACES, &b);

	if (r)
		return r == INDEX_ABSENT ? 0 : r;
	c = cursor_over(b.data, b.len);
	version = get_u8(&c);
	if ((version < PLACES_VERSION_MIN || version > PLACES_VERSION) && !c.failed)
		return -EPROTONOSUPPORT;
	n = get_varint_max(&c, PLACES_MAX);
	while (n-- && !c.failed) {
		char *address = get_text(&c, PLACE_BYTES_MAX);
		uint64_t replica = get_u64(&c);
		int64_t seen_ns = (int64_t)get_u64(&c);
		uint64_t seq = version > PLACES_VERSION_MIN ? get_varint(&c) : 0;

		if (!c.failed && (!*address || find(&read, address) || places_note(&read, address, replica, seen_ns, seq) < 0))
			cursor_fail(&c);
		free(address);
	}
	r = cursor_finish(&c);
	if (r)
		places_deinit(&read);
	else
		*ret = read;
	return r;
}

int places_write(struct index_txn *w, const struct places *p)
{
	struct buf b cleanup(buf_deinit) = BUF_INIT;

	put_u8(&b, PLACES_VERSION);
	put_varint(&b, p->n);
	for (size_t i = 0; i < p->n; i++) {
		put_string(&b, p->v[i].address, strlen(p->v[i].address));
		put_u64(&b, p->v[i].replica);
		put_u64(&b, (uint64_t)p->v[i].seen_ns);
		put_varint(&b, p->v[i].seq);
	}
	return buf_error(&b) ? buf_error(&b) : index_meta_put(w, INDEX_META_PLACES, b.data, b.len);
}
