/* tests/unit/merkle/test_chunk_tree.c — the tree over a file's chunks: shape, small edits, and
 * hostile nodes. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "merkle/chunk_tree.h"
#include "tests/unit/where.h"

#define NODES_MAX 4096

struct node {
	struct hash hash;
	uint8_t level;
	uint8_t *payload;
	size_t n;
};

struct nodes {
	struct node v[NODES_MAX];
	size_t n;
	int stop;
};

static int keep(const struct hash *hash, uint8_t level, const void *payload, size_t n, void *data)
{
	struct nodes *nodes = data;
	struct node *node = &nodes->v[nodes->n++];

	assert_true(nodes->n <= NODES_MAX);
	assert_true(n <= CHUNK_TREE_NODE_BYTES_MAX);
	*node = (struct node){.hash = *hash, .level = level, .payload = malloc(n), .n = n};
	memcpy(node->payload, payload, n);
	return nodes->stop;
}

static void nodes_clear(struct nodes *nodes)
{
	for (size_t i = 0; i < nodes->n; i++)
		free(nodes->v[i].payload);
	nodes->n = 0;
}

static const struct node *node_find(const struct nodes *nodes, const struct hash *hash)
{
	for (size_t i = 0; i < nodes->n; i++)
		if (hash_equal(&nodes->v[i].hash, hash))
			return &nodes->v[i];
	return NULL;
}

static struct chunk chunk_of(uint64_t name)
{
	struct chunk c = {.length = 1000 + (uint32_t)(name % 100), .zero = name == 0};

	hash_bytes(HASH_SHA256, &name, sizeof(name), &c.hash);
	return c;
}

/* names: the chunks' contents */
static struct content build(const uint64_t *names, size_t n, struct nodes *nodes)
{
	struct chunk_tree_builder *b;
	struct content content = {.chunk_bits = 15};

	assert_int_equal(chunk_tree_builder_new(&b, HASH_SHA256, nodes ? keep : NULL, nodes), 0);
	for (size_t i = 0; i < n; i++) {
		struct chunk c = chunk_of(names[i]);

		assert_int_equal(chunk_tree_builder_add(b, &c), 0);
	}
	assert_int_equal(chunk_tree_builder_finish(b, &content), 0);
	chunk_tree_builder_free(b);
	return content;
}

/* Walk down from a hash; checks levels and lengths, counts the chunks against names. */
static uint64_t walk(
	const struct nodes *nodes, const struct hash *hash, uint8_t level, const uint64_t **names)
{
	struct chunk_tree_entry *entries;
	const struct node *node;
	uint64_t size = 0;
	size_t n;

	if (!level) {
		struct chunk c = chunk_of(*(*names)++);

		assert_true(hash_equal(&c.hash, hash));
		return c.length;
	}
	node = node_find(nodes, hash);
	assert_non_null(node);
	assert_int_equal(node->level, level);
	assert_int_equal(
		chunk_tree_decode(HASH_SHA256, hash, level, node->payload, node->n, &entries, &n),
		0);
	assert_in_range(n, 1, CHUNK_TREE_FANOUT_MAX);
	for (size_t i = 0; i < n; i++) {
		assert_int_equal(
			entries[i].length, walk(nodes, &entries[i].hash, level - 1, names));
		size += entries[i].length;
	}
	free(entries);
	return size;
}

static void test_shape(void **state)
{
	static const size_t counts[] = {1, 2, 3, 63, 256, 257, 5000, 20000};
	static uint64_t names[20000];
	struct nodes *nodes = calloc(1, sizeof(*nodes));

	(void)state;
	for (size_t i = 0; i < 20000; i++)
		names[i] = i + 1;
	for (size_t k = 0; k < sizeof(counts) / sizeof(counts[0]); k++) {
		struct content c = build(names, counts[k], nodes),
			       again = build(names, counts[k], NULL);
		const uint64_t *seen = names;

		assert_true(content_equal(&c, &again));
		assert_int_equal(walk(nodes, &c.root, c.height, &seen), c.size);
		assert_int_equal(seen - names, counts[k]);
		assert_int_equal(c.height == 0, counts[k] == 1);
		assert_true(c.height <= 4);
		nodes_clear(nodes);
	}
	free(nodes);
}

static void test_single_chunk_is_the_root(void **state)
{
	uint64_t name = 7;
	struct nodes *nodes = calloc(1, sizeof(*nodes));
	struct content c = build(&name, 1, nodes);
	struct chunk chunk = chunk_of(7);

	(void)state;
	assert_int_equal(nodes->n, 0);
	assert_int_equal(c.height, 0);
	assert_true(hash_equal(&c.root, &chunk.hash));
	assert_int_equal(c.size, chunk.length);
	free(nodes);
}

/* An edit, an insertion or a removal changes about a node a level. */
static void test_small_edits(void **state)
{
	static uint64_t names[20001], edited[20002];
	struct nodes *before = calloc(1, sizeof(*before)), *after = calloc(1, sizeof(*after));
	struct content a, b;

	(void)state;
	for (size_t i = 0; i < 20000; i++)
		names[i] = i + 1;
	a = build(names, 20000, before);
	for (int what = 0; what < 3; what++) {
		size_t n = 20000, fresh = 0;

		memcpy(edited, names, sizeof(names));
		if (what == 0) {
			edited[777] = 1000000;
		} else if (what == 1) {
			memmove(edited + 778, edited + 777, (n - 777) * sizeof(*edited));
			edited[777] = 1000000;
			n++;
		} else {
			memmove(edited + 777, edited + 778, (n - 778) * sizeof(*edited));
			n--;
		}
		b = build(edited, n, after);
		assert_false(content_equal(&a, &b));
		for (size_t i = 0; i < after->n; i++)
			fresh += !node_find(before, &after->v[i].hash);
		assert_in_range(fresh, 2, 10); /* of more than 300 */
		nodes_clear(after);
	}
	assert_true(before->n > 250);
	nodes_clear(before);
	free(before);
	free(after);
}

static void test_same_chunks(void **state)
{
	/* zeros, and chunks that all are boundaries: fan-out 256 or 2, never a chain of single
	 * entries */
	static uint64_t names[3000];
	uint64_t boundary = 1;
	struct nodes *nodes = calloc(1, sizeof(*nodes));
	struct content c;

	(void)state;
	memset(names, 0, sizeof(names));
	c = build(names, 3000, nodes);
	assert_in_range(c.height, 2, 3);
	for (size_t i = 0; i < nodes->n; i++) {
		struct chunk_tree_entry *e;
		size_t n;

		assert_int_equal(
			chunk_tree_decode(HASH_SHA256, &nodes->v[i].hash, nodes->v[i].level,
				nodes->v[i].payload, nodes->v[i].n, &e, &n),
			0);
		for (size_t k = 0; k < n; k++)
			assert_true(e[k].zero);
		free(e);
	}
	nodes_clear(nodes);
	for (;; boundary++) {
		struct chunk chunk = chunk_of(boundary);

		if (!(chunk.hash.bytes[0] & 63))
			break;
	}
	for (size_t i = 0; i < 3000; i++)
		names[i] = boundary;
	c = build(names, 3000, nodes);
	assert_in_range(c.height, 2, CHUNK_TREE_HEIGHT_MAX);
	assert_in_range(nodes->n, 1500, 3000);
	nodes_clear(nodes);
	free(nodes);
}

/* Chunks whose hashes all end a node still make a tree that narrows. */
static void test_contrived_hashes(void **state)
{
	struct chunk_tree_builder *b;
	struct chunk c = {.length = 1};
	struct content content;
	int r = 0;

	(void)state;
	assert_int_equal(chunk_tree_builder_new(&b, HASH_XXH3, NULL, NULL), 0);
	for (size_t i = 0; i < 200000 && r == 0; i++)
		r = chunk_tree_builder_add(b, &c); /* an all-zero hash */
	assert_int_equal(r, 0);
	assert_int_equal(chunk_tree_builder_finish(b, &content), 0);
	assert_in_range(content.height, 2, CHUNK_TREE_HEIGHT_MAX);
	chunk_tree_builder_free(b);
}

static void test_emit_stops(void **state)
{
	struct nodes *nodes = calloc(1, sizeof(*nodes));
	struct chunk_tree_builder *b;
	struct content content = {.size = 99};
	struct chunk c = chunk_of(1);

	(void)state;
	nodes->stop = -EIO;
	assert_int_equal(chunk_tree_builder_new(&b, HASH_SHA256, keep, nodes), 0);
	assert_int_equal(chunk_tree_builder_add(b, &c), 0);
	assert_int_equal(chunk_tree_builder_add(b, &c), 0);
	assert_int_equal(chunk_tree_builder_finish(b, &content), -EIO);
	assert_int_equal(content.size, 99);
	chunk_tree_builder_free(b);
	chunk_tree_builder_free(NULL);
	nodes_clear(nodes);
	free(nodes);
}

/* --- hostile nodes --- */

static void put_entry(struct buf *b, uint8_t fill, uint64_t length, uint8_t flag)
{
	memset(buf_reserve(b, HASH_BYTES), fill, HASH_BYTES);
	put_varint(b, length);
	put_u8(b, flag);
}

static int decode(const struct buf *b, uint8_t level, size_t *ret_n)
{
	struct chunk_tree_entry *entries = NULL;
	struct hash_state *s;
	struct hash h;
	int r;

	assert_int_equal(hash_state_new(&s, HASH_SHA256), 0);
	hash_state_update(s, "syncd node", 10);
	hash_state_update(s, &level, 1);
	hash_state_update(s, b->data, b->len);
	hash_state_finish(s, &h);
	hash_state_free(s);
	r = chunk_tree_decode(HASH_SHA256, &h, level, b->data, b->len, &entries, ret_n);
	free(entries);
	return r;
}

static void test_decode(void **state)
{
	struct buf b = BUF_INIT;
	struct chunk_tree_entry *entries;
	struct hash wrong = {{1}};
	size_t n = 0;

	(void)state;
	assert_int_equal(decode(&b, 1, &n), -EBADMSG); /* nothing */
	put_entry(&b, 1, 5, 0);
	assert_int_equal(decode(&b, 1, &n), 0);
	assert_int_equal(n, 1);
	assert_int_equal(
		chunk_tree_decode(HASH_SHA256, &wrong, 1, b.data, b.len, &entries, &n), -EBADMSG);
	assert_int_equal(decode(&b, 0, &n), -EBADMSG); /* chunks are no nodes */
	assert_int_equal(decode(&b, CHUNK_TREE_HEIGHT_MAX, &n), 0);
	assert_int_equal(decode(&b, CHUNK_TREE_HEIGHT_MAX + 1, &n), -EBADMSG);
	put_entry(&b, 2, 6, 1);
	assert_int_equal(decode(&b, 1, &n), 0);
	assert_int_equal(n, 2);
	b.len--; /* cut */
	assert_int_equal(decode(&b, 1, &n), -EBADMSG);
	buf_clear(&b);
	put_entry(&b, 1, 0, 0); /* no length */
	assert_int_equal(decode(&b, 1, &n), -EBADMSG);
	buf_clear(&b);
	put_entry(&b, 1, 5, 2); /* an unknown flag */
	assert_int_equal(decode(&b, 1, &n), -EBADMSG);
	buf_clear(&b);
	put_entry(&b, 1, UINT64_MAX, 0); /* lengths overflow */
	assert_int_equal(decode(&b, 1, &n), 0);
	put_entry(&b, 1, 1, 0);
	assert_int_equal(decode(&b, 1, &n), -EBADMSG);
	buf_clear(&b);
	put_entry(&b, 0, 1, 0); /* a boundary as the first entry is none */
	put_entry(&b, 0, 1, 0);
	assert_int_equal(decode(&b, 1, &n), 0);
	put_entry(&b, 1, 1, 0); /* beyond one */
	assert_int_equal(decode(&b, 1, &n), -EBADMSG);
	buf_clear(&b);
	for (size_t i = 0; i < CHUNK_TREE_FANOUT_MAX; i++)
		put_entry(&b, 1, 1, 0);
	assert_int_equal(decode(&b, 1, &n), 0);
	assert_int_equal(n, CHUNK_TREE_FANOUT_MAX);
	put_entry(&b, 1, 1, 0);
	assert_int_equal(decode(&b, 1, &n), -EBADMSG);
	buf_deinit(&b);
}

static int chunk_tree_of_file(int fd, uint64_t size, uint8_t bits, enum hash_algorithm algorithm,
	chunk_tree_emit *emit, void *data, struct content *ret)
{
	const struct chunker_file file = {.fd = fd, .size = size, .bits = bits, .algorithm = algorithm};

	return chunk_tree_of(&file, emit, data, ret);
}

static void test_of_file(void **state)
{
	char path[256];
	size_t size = 3000000;
	uint32_t *p = malloc(size);
	struct content c, small;
	struct hash h;
	int fd;

	(void)state;
	for (uint32_t i = 0, x = 1; i < size / 4; i++) {
		x ^= x << 13, x ^= x >> 17, x ^= x << 5;
		p[i] = x;
	}
	snprintf(path, sizeof(path), "%s/chunk-tree-XXXXXX", where_disk());
	fd = mkstemp(path);
	assert_true(fd >= 0);
	unlink(path);
	assert_int_equal(write(fd, p, size), (ssize_t)size);
	assert_int_equal(chunk_tree_of_file(fd, size, 15, HASH_SHA256, NULL, NULL, &c), 0);
	assert_int_equal(c.size, size);
	assert_int_equal(c.chunk_bits, 15);
	assert_in_range(c.height, 1, 2);
	assert_int_equal(chunk_tree_of_file(fd, 60000, 15, HASH_SHA256, NULL, NULL, &small), 0);
	hash_bytes(HASH_SHA256, p, 60000, &h);
	assert_true(hash_equal(&small.root, &h));
	assert_int_equal(small.height, 0);
	assert_int_equal(chunk_tree_of_file(fd, 0, 15, HASH_SHA256, NULL, NULL, &small), 0);
	hash_bytes(HASH_SHA256, NULL, 0, &h);
	assert_true(hash_equal(&small.root, &h));
	assert_int_equal(small.size, 0);
	assert_int_equal(
		chunk_tree_of_file(fd, size + 1, 15, HASH_SHA256, NULL, NULL, &c), CHUNKER_CHANGED);
	assert_int_equal(c.size, size); /* untouched */
	close(fd);
	free(p);
}

static void test_content_equal(void **state)
{
	struct content a = {.size = 5, .chunk_bits = 15}, b = a;

	(void)state;
	assert_true(content_equal(&a, &b));
	b.root.bytes[9] = 1;
	assert_false(content_equal(&a, &b));
	b = a, b.size++;
	assert_false(content_equal(&a, &b));
	b = a, b.chunk_bits++;
	assert_false(content_equal(&a, &b));
	b = a, b.height++;
	assert_false(content_equal(&a, &b));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_shape),
		cmocka_unit_test(test_single_chunk_is_the_root),
		cmocka_unit_test(test_small_edits),
		cmocka_unit_test(test_same_chunks),
		cmocka_unit_test(test_contrived_hashes),
		cmocka_unit_test(test_emit_stops),
		cmocka_unit_test(test_decode),
		cmocka_unit_test(test_of_file),
		cmocka_unit_test(test_content_equal),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
