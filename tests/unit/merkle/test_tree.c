/* tests/unit/merkle/test_tree.c — the comparison tree equals one made from scratch, whatever came
 * before. */
#include "tests/unit/merkle/index_help.h"

#define COLLECT_MAX 60000

struct collected {
	struct tree_entry *v;
	size_t n;
};

static int collect(const struct tree_entry *entry, void *data)
{
	struct collected *c = data;

	assert_true(c->n < COLLECT_MAX);
	c->v[c->n++] = *entry;
	return 0;
}

static void collect_level(
	struct index_txn *t, enum tree_which which, unsigned level, struct collected *ret)
{
	struct path_key from = {0};

	ret->v = calloc(COLLECT_MAX, sizeof(*ret->v));
	assert_non_null(ret->v);
	ret->n = 0;
	assert_int_equal(tree_entries(t, which, level, &from, NULL, collect, ret), 0);
}

static void assert_same_entries(const struct collected *a, const struct collected *b)
{
	assert_int_equal(a->n, b->n);
	for (size_t i = 0; i < a->n; i++) {
		assert_int_equal(path_key_compare(&a->v[i].key, &b->v[i].key), 0);
		assert_true(hash_equal(&a->v[i].hash, &b->v[i].hash));
	}
}

static void assert_same_trees(struct index_txn *a, struct index_txn *b)
{
	for (int which = 0; which < 2; which++) {
		struct hash ra, rb;

		for (unsigned level = 0; level <= TREE_LEVELS; level++) {
			struct collected ca, cb;

			collect_level(a, which, level, &ca);
			collect_level(b, which, level, &cb);
			assert_same_entries(&ca, &cb);
			free(ca.v);
			free(cb.v);
		}
		assert_int_equal(tree_root(a, which, &ra), 0);
		assert_int_equal(tree_root(b, which, &rb), 0);
		assert_true(hash_equal(&ra, &rb));
	}
}

/* The tree as stored equals what a rebuild makes of the same rows. */
static void assert_as_rebuilt(struct index *x)
{
	struct index_txn *t = begin_read(x), *w = begin_write(x);

	assert_int_equal(tree_rebuild(w), 0);
	assert_same_trees(t, w);
	index_abort(t);
	index_abort(w);
}

/* Independent of update and rebuild: the rule itself, over the whole level at once. */
static void assert_by_rule(struct index_txn *t, enum tree_which which)
{
	struct collected below, level;
	uint8_t payload[16 + (TREE_BLOCK_MAX + 1) * HASH_BYTES];

	for (unsigned k = 1; k <= TREE_LEVELS; k++) {
		size_t n = 0, count = 0, blocks = 0;
		struct hash hash;

		collect_level(t, which, k - 1, &below);
		collect_level(t, which, k, &level);
		for (size_t i = 0; i <= below.n; i++) {
			const struct path_key *key = i < below.n ? &below.v[i].key : NULL;
			uint64_t h = key ? hash_fast(key->bytes, key->len, HELP_FOLDER) : 0;
			unsigned zeros = h ? (unsigned)__builtin_ctzll(h) : 64;
			bool cut = !count || !key || zeros >= 6 * k ||
				   (count >= 128 && zeros >= 6 * k - 3) || count >= 1024;

			if (cut && count) {
				hash_bytes(HASH_SHA256, payload, n, &hash);
				assert_true(hash_equal(&hash, &level.v[blocks - 1].hash));
			}
			if (!key)
				break;
			if (cut) {
				assert_true(blocks < level.n);
				assert_int_equal(path_key_compare(key, &level.v[blocks].key), 0);
				blocks++;
				memcpy(payload, "syncd tree", 10);
				payload[10] = (uint8_t)k;
				n = 11;
				count = 0;
			}
			memcpy(payload + n, below.v[i].hash.bytes, HASH_BYTES);
			n += HASH_BYTES;
			count++;
		}
		assert_int_equal(blocks, level.n);
		free(below.v);
		free(level.v);
	}
}

/* Paths of many shapes; some longer than keys, sharing what is cut. */
static void make_path(char *ret, size_t cap, uint64_t i)
{
	if (i % 50 == 7) {
		int n = snprintf(ret, cap, "long/");

		for (int k = 0; k < 3; k++) {
			memset(ret + n, 'a' + (int)(i % 3), 200);
			n += 200;
			ret[n++] = '/';
		}
		snprintf(ret + n, cap - (size_t)n, "f%llu", (unsigned long long)i);
		return;
	}
	snprintf(ret, cap, "d%llu/e%llu/file-%llu.txt", (unsigned long long)(i % 13),
		(unsigned long long)(i % 7), (unsigned long long)i);
}

static void test_empty(void **state)
{
	static const struct hash zero;
	struct temp_index a;
	struct index_txn *t;
	struct hash root;

	(void)state;
	temp_open(&a);
	t = begin_read(a.x);
	for (int which = 0; which < 2; which++) {
		memset(&root, 1, sizeof(root));
		assert_int_equal(tree_root(t, which, &root), 0);
		assert_memory_equal(&root, &zero, sizeof(zero));
	}
	index_abort(t);

	t = begin_write(a.x);
	put_file(t, "a", 1);
	assert_int_equal(tree_root(t, TREE_LIVE, &root), 0); /* within the transaction */
	assert_false(hash_is_zero(&root));
	assert_int_equal(index_drop(t, "a"), 0);
	assert_int_equal(tree_root(t, TREE_LIVE, &root), 0);
	assert_true(hash_is_zero(&root));
	assert_int_equal(index_commit(&t), 0);
	assert_as_rebuilt(a.x);
	temp_remove(&a);
}

static void random_step(struct index_txn *w, uint64_t *rng, uint64_t space)
{
	uint64_t i = next_random(rng) % space;
	struct row row = {0};
	char path[1024];
	int r;

	make_path(path, sizeof(path), i);
	switch (next_random(rng) % 5) {
	case 0:
		r = index_drop(w, path);
		assert_true(r == 0 || r == INDEX_ABSENT);
		break;
	case 1:
		put_tombstone(w, path, i + 1);
		break;
	case 2:
		if (i % 11)
			break;
		implied_row(&row);
		put_row(w, path, &row);
		break;
	default:
		put_file(w, path, i + (next_random(rng) % 2) * 1000000007);
	}
}

static void test_random_histories(void **state)
{
	uint64_t rng = 0x9e3779b97f4a7c15;

	(void)state;
	for (int round = 0; round < 6; round++) {
		uint64_t space = (uint64_t[]){3, 40, 300, 3000, 9000, 20000}[round];
		struct temp_index a;
		struct index_txn *w;

		temp_open(&a);
		for (int commit = 0; commit < 30; commit++) {
			uint64_t steps = commit % 3 ? 1 + next_random(&rng) % 5
						    : 1 + next_random(&rng) % (space / 4 + 1);

			w = begin_write(a.x);
			while (steps--)
				random_step(w, &rng, space);
			assert_int_equal(index_commit(&w), 0);
			if (commit % 5 == 4 || space < 1000)
				assert_as_rebuilt(a.x);
		}
		w = begin_read(a.x);
		assert_by_rule(w, TREE_LIVE);
		assert_by_rule(w, TREE_TOMBSTONES);
		index_abort(w);
		temp_remove(&a);
	}
}

/* The same rows put forwards, backwards and shuffled, in batches of different sizes, with detours.
 */
static void test_insertion_orders(void **state)
{
	enum { N = 6000 };
	static const size_t batch[3] = {1000, 37, 500};
	struct temp_index a[3];
	struct index_txn *t[3];
	uint64_t rng = 77;
	size_t *order = calloc(N, sizeof(*order));
	char path[1024];

	(void)state;
	for (size_t i = 0; i < N; i++)
		order[i] = i;
	for (int k = 0; k < 3; k++) {
		struct index_txn *w;

		temp_open(&a[k]);
		if (k == 2)
			for (size_t i = N - 1; i > 0; i--) {
				size_t j = next_random(&rng) % (i + 1), keep = order[i];

				order[i] = order[j];
				order[j] = keep;
			}
		w = begin_write(a[k].x);
		for (size_t i = 0; i < N; i++) {
			size_t n = order[k == 1 ? N - 1 - i : i];

			make_path(path, sizeof(path), n);
			if (k && i % 3 == 0)
				put_tombstone(w, path, 3);
			put_file(w, path, n);
			if (k && i % 7 == 0) {
				put_file(w, "detour", n);
				if (i % 2)
					assert_int_equal(index_commit(&w), 0),
						w = begin_write(a[k].x);
				assert_int_equal(index_drop(w, "detour"), 0);
			}
			if (i % batch[k] == batch[k] - 1) {
				assert_int_equal(index_commit(&w), 0);
				w = begin_write(a[k].x);
			}
		}
		assert_int_equal(index_commit(&w), 0);
		t[k] = begin_read(a[k].x);
	}
	assert_same_trees(t[0], t[1]);
	assert_same_trees(t[0], t[2]);
	for (int k = 0; k < 3; k++) {
		index_abort(t[k]);
		temp_remove(&a[k]);
	}
	free(order);
}

/* Names chosen so that no block begins by itself: with easy masks for some, with none at all for
 * others. */
static void test_without_boundaries(void **state)
{
	(void)state;
	for (unsigned zeros_max = 0; zeros_max <= 5; zeros_max += 4) {
		struct collected blocks;
		struct temp_index a;
		struct index_txn *w;
		struct path_key key;
		uint64_t rng = 5;
		char path[64];
		int n = 0;

		temp_open(&a);
		w = begin_write(a.x);
		for (uint64_t i = 0; n < 5000; i++) {
			uint64_t h;

			snprintf(path, sizeof(path), "n%08llu",
				(unsigned long long)(i * 7919 % 100000000));
			path_key(&key, path);
			h = hash_fast(key.bytes, key.len, HELP_FOLDER);
			if (!h || (unsigned)__builtin_ctzll(h) > zeros_max)
				continue;
			put_file(w, path, i);
			n++;
		}
		assert_int_equal(index_commit(&w), 0);
		assert_as_rebuilt(a.x);
		w = begin_read(a.x);
		assert_by_rule(w, TREE_LIVE);
		collect_level(w, TREE_LIVE, 1, &blocks);
		assert_true(zeros_max ? blocks.n > 5
				      : blocks.n == 5); /* 5,000 in plain cuts of 1,024 */
		free(blocks.v);
		index_abort(w);
		for (int commit = 0; commit < 10; commit++) {
			w = begin_write(a.x);
			for (int k = 0; k < 3; k++) {
				snprintf(path, sizeof(path), "n%08llu",
					(unsigned long long)(next_random(&rng) % 6000 * 7919 %
							     100000000));
				if (index_drop(w, path) == INDEX_ABSENT)
					put_file(w, path, 9);
			}
			assert_int_equal(index_commit(&w), 0);
			assert_as_rebuilt(a.x);
		}
		temp_remove(&a);
	}
}

static void test_ranges(void **state)
{
	struct temp_index a;
	struct index_txn *t;
	struct collected all, up = {calloc(COLLECT_MAX, sizeof(*up.v)), 0}, down = {calloc(COLLECT_MAX, sizeof(*down.v)), 0};
	char path[64];

	(void)state;
	temp_open(&a);
	t = begin_write(a.x);
	for (unsigned i = 0; i < 3000; i++) {
		snprintf(path, sizeof(path), "f%05u", i);
		put_file(t, path, i);
	}
	for (unsigned level = 0; level <= TREE_LEVELS; level++) {
		collect_level(t, TREE_LIVE, level, &all);
		for (size_t i = 0; i < all.n; i += 1 + all.n / 50)
			for (size_t j = i; j <= all.n; j += 1 + all.n / 20) {
				const struct path_key *to = j < all.n ? &all.v[j].key : NULL;

				up.n = down.n = 0;
				assert_int_equal(tree_entries(t, TREE_LIVE, level, &all.v[i].key,
							 to, collect, &up),
					0);
				assert_int_equal(tree_entries_descending(t, TREE_LIVE, level,
							 &all.v[i].key, to, collect, &down),
					0);
				assert_int_equal(up.n, j - i);
				assert_int_equal(down.n, j - i);
				for (size_t k = 0; k < up.n; k++) {
					assert_int_equal(
						path_key_compare(&up.v[k].key, &all.v[i + k].key),
						0);
					assert_int_equal(path_key_compare(&down.v[k].key,
								 &all.v[j - 1 - k].key),
						0);
				}
			}
		free(all.v);
	}
	assert_int_equal(tree_entries(t, TREE_LIVE, TREE_LEVELS + 1, &(struct path_key){0}, NULL,
				 collect, NULL),
		-EINVAL);
	free(up.v);
	free(down.v);
	index_abort(t);
	temp_remove(&a);
}

static void test_other_key_rebuilds(void **state)
{
	struct temp_index a, b;
	struct index_txn *wa, *wb;
	char path[1024];

	(void)state;
	temp_open(&a);
	temp_open(&b);
	wa = begin_write(a.x);
	wb = begin_write(b.x);
	assert_int_equal(index_set_key(wb, 99, HASH_SHA256), 0);
	for (unsigned i = 0; i < 2000; i++) {
		make_path(path, sizeof(path), i);
		put_file(wa, path, i);
		put_file(wb, path, i);
	}
	assert_int_equal(index_set_key(wa, 99, HASH_SHA256), 0);
	assert_int_equal(index_commit(&wa), 0);
	assert_int_equal(index_commit(&wb), 0);
	wa = begin_read(a.x);
	wb = begin_read(b.x);
	assert_same_trees(wa, wb);
	index_abort(wa);
	index_abort(wb);
	temp_remove(&a);
	temp_remove(&b);
}

/* A change touches one block a level; content never changes the shape. */
static void test_one_change_is_local(void **state)
{
	struct temp_index a;
	struct index_txn *t;
	struct collected before[4], after[4];
	char path[64];

	(void)state;
	temp_open(&a);
	t = begin_write(a.x);
	for (unsigned i = 0; i < 20000; i++) {
		snprintf(path, sizeof(path), "d%u/f%05u", i % 50, i);
		put_file(t, path, i);
	}
	for (unsigned level = 0; level < 4; level++)
		collect_level(t, TREE_LIVE, level, &before[level]);
	put_file(t, "d7/f07007", 123456);
	for (unsigned level = 0; level < 4; level++) {
		size_t differ = 0;

		collect_level(t, TREE_LIVE, level, &after[level]);
		assert_int_equal(before[level].n, after[level].n);
		for (size_t i = 0; i < before[level].n; i++) {
			assert_int_equal(
				path_key_compare(&before[level].v[i].key, &after[level].v[i].key),
				0);
			differ += !hash_equal(&before[level].v[i].hash, &after[level].v[i].hash);
		}
		assert_int_equal(differ, 1);
		free(before[level].v);
		free(after[level].v);
	}
	index_abort(t);
	temp_remove(&a);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_empty),
		cmocka_unit_test(test_random_histories),
		cmocka_unit_test(test_insertion_orders),
		cmocka_unit_test(test_without_boundaries),
		cmocka_unit_test(test_ranges),
		cmocka_unit_test(test_other_key_rebuilds),
		cmocka_unit_test(test_one_change_is_local),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
