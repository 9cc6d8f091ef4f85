/*
 * merkle/chunk_tree.c — see merkle/chunk_tree.h.
 *
 *   level 2          N                 levels[k] collects the entries of level k that wait for
 * their node of /    |    \            level k + 1. When such a node ends, it is hashed, handed
 * out, and becomes level 1    N     N     N           one entry of levels[k + 1].
 *             /|\   / \   /|
 *   chunks   c c c c   c c c           At the end each level's rest becomes a node, until a level
 * had one entry in all.
 *
 * Invariant: a node that ends by a boundary has at least two entries, so that a level is at most
 * half (rounded up) as long as the one below it, whatever hashes someone contrives, and a level's
 * only entry is never wrapped.
 */
#include "merkle/chunk_tree.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"

#define BOUNDARY_MASK 63 /* 6 trailing zero bits */
#define ENTRIES_BEFORE_BOUNDARY 2
#define NODE_PREFIX "syncd node"

struct level {
	struct chunk_tree_entry entries[CHUNK_TREE_FANOUT_MAX];
	size_t n;	/* waiting */
	uint64_t total; /* ever added */
};

struct chunk_tree_builder {
	enum hash_algorithm algorithm;
	chunk_tree_emit *emit; /* may be NULL */
	void *data;
	struct hash_state *hash;
	struct buf payload;
	struct level *levels[CHUNK_TREE_HEIGHT_MAX + 1]; /* allocated as needed */
	uint64_t size;					 /* bytes of all chunks */
};

bool content_equal(const struct content *a, const struct content *b)
{
	return hash_equal(&a->root, &b->root) && a->size == b->size &&
	       a->chunk_bits == b->chunk_bits && a->height == b->height;
}

static bool is_boundary(const struct hash *h)
{
	return !(h->bytes[0] &
		 BOUNDARY_MASK); /* little-endian: the lowest bits are in the first byte */
}

/* Does a node end after its n-th entry? */
static bool node_ends(size_t n, const struct hash *last)
{
	return n == CHUNK_TREE_FANOUT_MAX || (n >= ENTRIES_BEFORE_BOUNDARY && is_boundary(last));
}

static void node_hash(
	struct hash_state *s, uint8_t level, const void *payload, size_t n, struct hash *ret)
{
	hash_state_update(s, NODE_PREFIX, strlen(NODE_PREFIX));
	hash_state_update(s, &level, 1);
	hash_state_update(s, payload, n);
	hash_state_finish(s, ret);
}

static int check_hash(enum hash_algorithm algorithm, const struct hash *hash, uint8_t level,
	const void *payload, size_t n)
{
	struct hash_state *s;
	struct hash found;
	int r = hash_state_new(&s, algorithm);

	if (r < 0)
		return r;
	node_hash(s, level, payload, n, &found);
	hash_state_free(s);
	return hash_equal(&found, hash) ? 0 : -EBADMSG;
}

DEFINE_CLEANUP(struct chunk_tree_builder *, chunk_tree_builder_free)

int chunk_tree_builder_new(struct chunk_tree_builder **ret, enum hash_algorithm algorithm,
	chunk_tree_emit *emit, void *data)
{
	struct chunk_tree_builder *b = calloc(1, sizeof(*b));
	int r;

	if (!b)
		return -ENOMEM;
	b->algorithm = algorithm;
	b->emit = emit;
	b->data = data;
	r = hash_state_new(&b->hash, algorithm);
	if (r < 0) {
		free(b);
		return r;
	}
	*ret = b;
	return 0;
}

void chunk_tree_builder_free(struct chunk_tree_builder *b)
{
	if (!b)
		return;
	for (size_t k = 0; k < ARRAY_SIZE(b->levels); k++)
		free(b->levels[k]);
	buf_deinit(&b->payload);
	hash_state_free(b->hash);
	free(b);
}

/* Make a node of what waits at level k, as an entry of level k + 1. */
static int end_node(struct chunk_tree_builder *b, size_t k, struct chunk_tree_entry *ret)
{
	struct level *l = b->levels[k];
	struct chunk_tree_entry node = {.zero = true};
	int r;

	buf_clear(&b->payload);
	for (size_t i = 0; i < l->n; i++) {
		put_bytes(&b->payload, l->entries[i].hash.bytes, HASH_BYTES);
		put_varint(&b->payload, l->entries[i].length);
		put_u8(&b->payload, l->entries[i].zero);
		node.length += l->entries[i].length;
		node.zero = node.zero && l->entries[i].zero;
	}
	r = buf_error(&b->payload);
	if (r < 0)
		return r;
	node_hash(b->hash, (uint8_t)(k + 1), b->payload.data, b->payload.len, &node.hash);
	l->n = 0;
	if (b->emit)
		r = b->emit(&node.hash, (uint8_t)(k + 1), b->payload.data, b->payload.len, b->data);
	*ret = node;
	return r;
}

/* Add an entry at level k, and the nodes that end with it above. */
static int add_entry(struct chunk_tree_builder *b, size_t k, struct chunk_tree_entry entry)
{
	for (;; k++) {
		struct level *l;
		int r;

		if (k == ARRAY_SIZE(b->levels))
			return -EFBIG;
		if (!b->levels[k])
			b->levels[k] = calloc(1, sizeof(*b->levels[k]));
		l = b->levels[k];
		if (!l)
			return -ENOMEM;
		l->entries[l->n++] = entry;
		l->total++;
		if (!node_ends(l->n, &entry.hash))
			return 0;
		r = end_node(b, k, &entry);
		if (r != 0)
			return r;
	}
}

int chunk_tree_builder_add(struct chunk_tree_builder *b, const struct chunk *chunk)
{
	struct chunk_tree_entry entry = {
		.hash = chunk->hash, .length = chunk->length, .zero = chunk->zero};

	assert(chunk->length || !b->levels[0]);
	if (b->size > UINT64_MAX - chunk->length)
		return -EOVERFLOW;
	b->size += chunk->length;
	return add_entry(b, 0, entry);
}

int chunk_tree_builder_finish(struct chunk_tree_builder *b, struct content *ret)
{
	size_t k = 0;

	assert(b->levels[0]);
	for (; b->levels[k]->total > 1; k++) {
		struct chunk_tree_entry entry;
		int r;

		if (b->levels[k]->n) {
			r = end_node(b, k, &entry);
			if (r == 0)
				r = add_entry(b, k + 1, entry);
			if (r != 0)
				return r;
		}
	}
	ret->root = b->levels[k]->entries[0].hash;
	ret->size = b->size;
	ret->height = (uint8_t)k;
	return 0;
}

static int add_chunk(const struct chunk *chunk, const uint8_t *bytes, void *data)
{
	(void)bytes;
	return chunk_tree_builder_add(data, chunk);
}

static int take_single(const struct chunk *chunk, const uint8_t *bytes, void *data)
{
	struct content *content = data;

	(void)bytes;
	content->root = chunk->hash;
	content->size = chunk->length;
	return 0;
}

int chunk_tree_of(const struct chunker_file *file, chunk_tree_emit *emit, void *data, struct content *ret)
{
	struct chunk_tree_builder *b cleanup(chunk_tree_builder_free_p) = NULL;
	struct content content = {.chunk_bits = file->bits};
	int r;

	if (file->size <= CHUNK_SINGLE_BYTES_MAX) {
		r = chunker_run_file(file, take_single, &content);
	} else {
		r = chunk_tree_builder_new(&b, file->algorithm, emit, data);
		if (r == 0)
			r = chunker_run_file(file, add_chunk, b);
		if (r == 0)
			r = chunk_tree_builder_finish(b, &content);
	}
	if (r == 0)
		*ret = content;
	return r;
}

static void entry_get(struct cursor *c, struct chunk_tree_entry *ret)
{
	uint8_t zero;

	get_bytes(c, ret->hash.bytes, HASH_BYTES);
	ret->length = get_varint(c);
	zero = get_u8(c);
	if (!ret->length || zero > 1)
		cursor_fail(c);
	ret->zero = zero;
}

size_t chunk_tree_entry_bytes(const uint8_t *payload, size_t n)
{
	struct cursor c = cursor_over(payload, n);
	struct chunk_tree_entry entry;

	entry_get(&c, &entry);
	return c.failed ? n : (size_t)(c.p - payload);
}

int chunk_tree_decode(enum hash_algorithm algorithm, const struct hash *hash, uint8_t level,
	const void *payload, size_t n, struct chunk_tree_entry **ret, size_t *ret_n)
{
	struct chunk_tree_entry *entries cleanup_free = NULL;
	struct cursor c = cursor_over(payload, n);
	size_t count = 0, cap = 0;
	uint64_t size = 0;
	int r;

	if (level < 1 || level > CHUNK_TREE_HEIGHT_MAX || !n || n > CHUNK_TREE_NODE_BYTES_MAX)
		return -EBADMSG;
	r = check_hash(algorithm, hash, level, payload, n);
	while (r == 0 && cursor_left(&c)) {
		if (count && node_ends(count, &entries[count - 1].hash))
			return -EBADMSG;
		r = array_reserve(&entries, &cap, count + 1, sizeof(*entries));
		if (r < 0)
			return r;
		entry_get(&c, &entries[count]);
		if (c.failed || size > UINT64_MAX - entries[count].length)
			return -EBADMSG;
		size += entries[count++].length;
	}
	if (r == 0)
		r = cursor_finish(&c);
	if (r < 0)
		return r;
	*ret = steal(entries);
	*ret_n = count;
	return 0;
}
