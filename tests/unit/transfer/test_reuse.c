/* tests/unit/transfer/test_reuse.c — what is found, what is found later, and how much is kept. Files are in the index only. */
#include "transfer/reuse.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include "base/error.h"
#include "merkle/index_internal.h"
#include "tests/unit/where.h"

#define ALGORITHM HASH_SHA256

struct fixture {
	char root[256];
	struct replica *r;
	struct reuse *u;
};

static int setup(void **state)
{
	const struct store_options options = {.create = true, .algorithm = ALGORITHM};
	struct fixture *f = test_calloc(1, sizeof(*f));
	struct store *store = NULL;

	snprintf(f->root, sizeof(f->root), "%s/test_reuse.XXXXXX", where_memory());
	assert_non_null(mkdtemp(f->root));
	assert_int_equal(store_open(&store, f->root, &options), 0);
	assert_int_equal(replica_open(&f->r, store), 0);
	assert_int_equal(index_relax(replica_index(f->r)), 0);
	assert_int_equal(reuse_new(&f->u), 0);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;
	char command[600];

	reuse_free(f->u);
	replica_close(f->r);
	snprintf(command, sizeof(command), "rm -rf -- '%s'", f->root);
	assert_int_equal(system(command), 0);
	test_free(f);
	return 0;
}

/* Chunk i of file `file`. */
static struct hash chunk_of(unsigned file, unsigned i)
{
	const unsigned name[] = {file, i};
	struct hash h;

	hash_bytes(ALGORITHM, name, sizeof(name), &h);
	return h;
}

static int put_node(const struct hash *hash, uint8_t level, const void *payload, size_t n, void *data)
{
	return index_node_put(data, hash, level, payload, n);
}

/* The root's name. */
static uint64_t add_file(struct replica_txn *t, unsigned file, unsigned chunks)
{
	struct row row = {.place = ROW_ON_DISK, .stamp.ino = 1000 + file};
	struct chunk_tree_builder *b = NULL;
	uint64_t name;
	char path[32];

	row.record.live = true;
	row.record.kind = RECORD_FILE;
	assert_int_equal(chunk_tree_builder_new(&b, ALGORITHM, put_node, t->index), 0);
	for (unsigned i = 0; i < chunks; i++) {
		struct chunk c = {chunk_of(file, i), (uint64_t)i << 15, 1 << 15, false};

		assert_int_equal(chunk_tree_builder_add(b, &c), 0);
	}
	assert_int_equal(chunk_tree_builder_finish(b, &row.record.content), 0);
	chunk_tree_builder_free(b);
	row.record.content.chunk_bits = 15;
	snprintf(path, sizeof(path), "%u", file);
	assert_int_equal(replica_event(t, REPLICA_EVENT_STATE, NULL, &row.record), 0);
	assert_int_equal(index_put(t->index, path, &row), 0);
	name = index_root_name(&row.record.content.root);
	record_deinit(&row.record);
	return name;
}

static uint64_t add_files(struct fixture *f, unsigned first, unsigned n, unsigned chunks)
{
	struct replica_txn t;
	uint64_t name = 0;

	replica_lock(f->r);
	assert_int_equal(replica_begin(f->r, &t), 0);
	for (unsigned i = first; i < first + n; i++)
		name = add_file(&t, i, chunks);
	assert_int_equal(replica_commit(&t), 0);
	replica_unlock(f->r);
	return name;
}

static unsigned found(const struct fixture *f, unsigned file, unsigned chunks, uint64_t root)
{
	unsigned n = 0;

	for (unsigned i = 0; i < chunks; i++) {
		struct hash h = chunk_of(file, i);
		uint64_t name;

		if (!reuse_look(f->u, &h, &name))
			continue;
		assert_true(name == root);
		n++;
	}
	return n;
}

static void test_found(void **state)
{
	struct fixture *f = *state;
	uint64_t a = add_files(f, 1, 1, 2000), b = add_files(f, 2, 1, 3);

	assert_int_equal(reuse_prepare(f->u, f->r, REUSE_BYTES_MIN - 1), REUSE_NOT_YET);
	assert_int_equal(found(f, 1, 2000, a), 0);
	assert_int_equal(reuse_prepare(f->u, f->r, 1), 0);
	assert_int_equal(found(f, 1, 2000, a), 2000);
	assert_int_equal(found(f, 2, 3, b), 3);
	assert_int_equal(found(f, 3, 2000, 0), 0);
}

static void test_what_comes_later_is_found(void **state)
{
	struct fixture *f = *state;
	uint64_t a, b;

	assert_int_equal(reuse_prepare(f->u, f->r, REUSE_BYTES_MIN), 0);
	a = add_files(f, 1, 1, 100);
	assert_int_equal(found(f, 1, 100, a), 0);
	assert_int_equal(reuse_prepare(f->u, f->r, 1), 0);
	assert_int_equal(found(f, 1, 100, a), 100);
	/* more than is remembered: once much was missed, all is read again */
	b = add_files(f, 2, INDEX_NEW_TREES + 2, 3);
	assert_int_equal(reuse_prepare(f->u, f->r, 1), 0);
	assert_int_equal(found(f, INDEX_NEW_TREES + 3, 3, b), 0);
	assert_int_equal(reuse_prepare(f->u, f->r, 16 * REUSE_BYTES_MIN), 0);
	assert_int_equal(found(f, INDEX_NEW_TREES + 3, 3, b), 3);
	assert_int_equal(found(f, 1, 100, a), 100);
}

/* What is not committed is not there; what was not is not remembered. */
static void test_what_was_not_committed(void **state)
{
	struct fixture *f = *state;
	uint64_t at = 0, names[INDEX_NEW_TREES];
	struct replica_txn t;
	size_t n;

	replica_lock(f->r);
	assert_int_equal(replica_begin(f->r, &t), 0);
	add_file(&t, 1, 3);
	replica_abort(&t);
	replica_unlock(f->r);
	assert_int_equal(index_new_trees(replica_index(f->r), &at, names, &n), 0);
	assert_int_equal(n, 0);
	assert_int_equal(at, 0);
}

/* However many chunks there are: a part of each large file is kept. */
static void test_bounded(void **state)
{
	struct fixture *f = *state;
	const unsigned files = 10, chunks = 3 * REUSE_ENTRIES_MAX / files;
	unsigned all = 0;

	add_files(f, 0, files, chunks);
	assert_int_equal(reuse_prepare(f->u, f->r, REUSE_BYTES_MIN), 0);
	for (unsigned i = 0; i < files; i++) {
		unsigned n = 0;

		for (unsigned j = 0; j < chunks; j++) {
			struct hash h = chunk_of(i, j);
			uint64_t name;

			n += reuse_look(f->u, &h, &name);
		}
		assert_in_range(n, chunks / 16, chunks / 2);
		all += n;
	}
	assert_in_range(all, REUSE_ENTRIES_MAX / 4, REUSE_ENTRIES_MAX / 4 * 3);
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(test_found),
		T(test_what_comes_later_is_found),
		T(test_what_was_not_committed),
		T(test_bounded),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
