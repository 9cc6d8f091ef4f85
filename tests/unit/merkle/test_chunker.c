/* tests/unit/merkle/test_chunker.c — where content is cut, and that only its bytes decide. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "merkle/chunker.h"
#include "tests/random.h"
#include "tests/unit/where.h"

#define MIB (UINT64_C(1) << 20)

static uint8_t *random_bytes_new(size_t n, uint64_t seed)
{
	uint8_t *p = malloc(n + 8);

	assert_non_null(p);
	for (size_t i = 0; i < n; i += 8) {
		uint64_t z = test_random(&seed);

		memcpy(p + i, &z, 8);
	}
	return p;
}

/* --- the cut --- */

struct cuts {
	size_t at[20000]; /* ends of chunks */
	size_t n;
};

static void cut_all(const uint8_t *p, size_t n, uint8_t bits, struct cuts *ret)
{
	ret->n = 0;
	for (size_t at = 0; at < n;) {
		size_t len = chunker_cut(p + at, n - at, bits, true);

		assert_true(len > 0 && len <= n - at);
		assert_true(len <= (size_t)4 << bits);
		assert_true(len >= ((size_t)1 << bits) / 4 || at + len == n);
		at += len;
		assert_true(ret->n < 20000);
		ret->at[ret->n++] = at;
	}
}

/* Ends of b that are also ends of a, when b's are shifted back by `shift`. */
static size_t in_common(const struct cuts *a, const struct cuts *b, size_t shift)
{
	size_t i = 0, common = 0;

	for (size_t k = 0; k < b->n; k++) {
		while (i < a->n && a->at[i] + shift < b->at[k])
			i++;
		common += i < a->n && a->at[i] + shift == b->at[k];
	}
	return common;
}

static void test_bits_for_size(void **state)
{
	(void)state;
	assert_int_equal(chunk_bits_for_size(0), 15);
	assert_int_equal(chunk_bits_for_size(2048 * MIB - 1), 15); /* 2 GiB / 32768 = 64 KiB */
	assert_int_equal(chunk_bits_for_size(2048 * MIB), 16);
	assert_int_equal(chunk_bits_for_size(4096 * MIB - 1), 16);
	assert_int_equal(chunk_bits_for_size(4096 * MIB), 17);
	assert_int_equal(chunk_bits_for_size(32768 * MIB), 20);
	assert_int_equal(chunk_bits_for_size(UINT64_MAX), 20);
}

static void test_lengths(void **state)
{
	static struct cuts cuts;
	size_t n = 48 * MIB;
	uint8_t *p = random_bytes_new(n, 1);

	(void)state;
	for (uint8_t bits = CHUNK_BITS_MIN; bits <= 17; bits++) {
		size_t longest = 0, mean;

		cut_all(p, n, bits, &cuts);
		mean = n / cuts.n;
		assert_true(mean > ((size_t)1 << bits) * 8 / 10 &&
			    mean < ((size_t)1 << bits) * 14 / 10);
		for (size_t i = 1; i < cuts.n; i++)
			longest += cuts.at[i] - cuts.at[i - 1] == (size_t)4 << bits;
		assert_true(longest * 50 < cuts.n); /* the maximum hardly ever decides */
	}
	free(p);
}

/* Part of the format: these may not change. */
static void test_known_cuts(void **state)
{
	static const size_t known[] = {29126, 42150, 115499, 190511, 224534, 241070, 285729, 322996,
		335825, 370559, 406865, 452046};
	static struct cuts cuts;
	uint8_t *p = random_bytes_new(MIB, 42);

	(void)state;
	cut_all(p, MIB, 15, &cuts);
	for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++)
		assert_int_equal(cuts.at[i], known[i]);
	free(p);
}

static void test_insert_at_front(void **state)
{
	static struct cuts before, after;
	size_t n = 32 * MIB, shift = 1237;
	uint8_t *p = random_bytes_new(n + shift, 2);

	(void)state;
	cut_all(p + shift, n, 15, &before);
	cut_all(p, n + shift, 15, &after);
	assert_true(in_common(&before, &after, shift) * 100 > before.n * 95);
	free(p);
}

static void test_growth_past_a_step(void **state)
{
	static struct cuts fine, coarse;
	size_t n = 32 * MIB;
	uint8_t *p = random_bytes_new(n, 3);

	(void)state;
	cut_all(p, n, 15, &fine);
	cut_all(p, n, 16, &coarse);
	assert_true(in_common(&fine, &coarse, 0) * 100 > coarse.n * 60);
	free(p);
}

/* Runs of one byte are cut at the maximum: for zeros that is promised. */
static void test_zeros(void **state)
{
	uint8_t *p = random_bytes_new(4 << 20, 4);

	(void)state;
	for (uint8_t bits = CHUNK_BITS_MIN; bits <= CHUNK_BITS_MAX; bits++) {
		size_t longest = (size_t)4 << bits;

		memset(p, 0, longest);
		assert_int_equal(chunker_cut(p, longest, bits, false), longest);
		assert_int_equal(chunker_cut(p, longest, bits, true), longest);
		assert_int_equal(chunker_cut(p, longest - 1, bits, true), longest - 1);
	}
	free(p);
}

static void test_short(void **state)
{
	uint8_t *p = random_bytes_new(1 << 20, 5);

	(void)state;
	assert_int_equal(chunker_cut(p, 0, 15, true), 0);
	assert_int_equal(chunker_cut(p, 1, 15, true), 1);
	assert_int_equal(chunker_cut(p, 8192, 15, true), 8192);
	for (size_t n = 8190; n < 140000;
		n += 977) { /* what follows does not matter but for the end */
		size_t whole = chunker_cut(p, 131072, 15, false), cut = chunker_cut(p, n, 15, true);

		assert_int_equal(cut, n < whole ? n : whole);
	}
	free(p);
}

/* --- whole files --- */

struct list {
	struct chunk v[400000];
	size_t n;
	const uint8_t *expect; /* if set: what the file holds */
	size_t stop_at;
};

static int collect(const struct chunk *chunk, const uint8_t *bytes, void *data)
{
	struct list *l = data;

	assert_true(l->n < sizeof(l->v) / sizeof(l->v[0]));
	assert_int_equal(chunk->offset, l->n ? l->v[l->n - 1].offset + l->v[l->n - 1].length : 0);
	assert_true(chunk->length <= CHUNK_BYTES_MAX);
	assert_int_equal(!bytes, chunk->zero || !chunk->length);
	if (bytes && l->expect)
		assert_memory_equal(bytes, l->expect + chunk->offset, chunk->length);
	if (chunk->zero && l->expect)
		assert_true(
			!l->expect[chunk->offset] && !l->expect[chunk->offset + chunk->length - 1]);
	l->v[l->n++] = *chunk;
	return l->n == l->stop_at ? 77 : 0;
}

static int new_file(void)
{
	char path[256];
	int fd;

	snprintf(path, sizeof(path), "%s/chunker-XXXXXX", where_disk());
	fd = mkstemp(path);
	assert_true(fd >= 0);
	unlink(path);
	return fd;
}

static void write_all(int fd, const uint8_t *p, size_t n, uint64_t offset)
{
	while (n) {
		ssize_t w = pwrite(fd, p, n, (off_t)offset);

		assert_true(w > 0);
		p += w;
		n -= (size_t)w;
		offset += (uint64_t)w;
	}
}

static int chunker_run(int fd, uint64_t size, uint8_t bits, enum hash_algorithm algorithm,
	chunker_emit *emit, void *data)
{
	const struct chunker_file file = {.fd = fd, .size = size, .bits = bits, .algorithm = algorithm};

	return chunker_run_file(&file, emit, data);
}

static struct list *run(
	int fd, uint64_t size, uint8_t bits, enum hash_algorithm algorithm, const uint8_t *expect)
{
	struct list *l = calloc(1, sizeof(*l));

	assert_non_null(l);
	l->expect = expect;
	assert_int_equal(chunker_run(fd, size, bits, algorithm, collect, l), 0);
	assert_int_equal(l->v[l->n - 1].offset + l->v[l->n - 1].length, size);
	return l;
}

static void check_equal(const struct list *a, const struct list *b)
{
	assert_int_equal(a->n, b->n);
	for (size_t i = 0; i < a->n; i++) {
		assert_int_equal(a->v[i].offset, b->v[i].offset);
		assert_int_equal(a->v[i].length, b->v[i].length);
		assert_int_equal(a->v[i].zero, b->v[i].zero);
		assert_true(hash_equal(&a->v[i].hash, &b->v[i].hash));
	}
}

/* As chunker_cut says, over all of the file in memory. */
static void test_file_is_cut_as_memory(void **state)
{
	static const size_t sizes[] = {1, 65536, 65537, 131072, 262144, 262145, 3000000};
	static struct cuts cuts;
	uint8_t *p = random_bytes_new(3000000, 6);
	int fd = new_file();

	(void)state;
	write_all(fd, p, 3000000, 0);
	for (size_t s = 0; s < sizeof(sizes) / sizeof(sizes[0]); s++) {
		struct list *l =
			run(fd, sizes[s], 15, HASH_XXH3, p); /* bytes beyond are not looked at */

		cut_all(p, sizes[s], 15, &cuts);
		if (sizes[s] <= CHUNK_SINGLE_BYTES_MAX) {
			assert_int_equal(l->n, 1);
			cuts.at[0] = sizes[s];
		}
		for (size_t i = 0; i < l->n; i++) {
			struct hash h;

			assert_int_equal(l->v[i].offset + l->v[i].length, cuts.at[i]);
			assert_int_equal(l->v[i].zero, l->v[i].length == 1 && !p[l->v[i].offset]);
			hash_bytes(HASH_XXH3, p + l->v[i].offset, l->v[i].length, &h);
			assert_true(hash_equal(&h, &l->v[i].hash));
		}
		free(l);
	}
	close(fd);
	free(p);
}

static void test_empty_file(void **state)
{
	int fd = new_file();
	struct list *l = run(fd, 0, 15, HASH_SHA256, NULL);
	struct hash h;

	(void)state;
	assert_int_equal(l->n, 1);
	assert_int_equal(l->v[0].length, 0);
	assert_false(l->v[0].zero);
	hash_bytes(HASH_SHA256, NULL, 0, &h);
	assert_true(hash_equal(&h, &l->v[0].hash));
	free(l);
	close(fd);
}

static void check_sparse(const size_t (*data)[2], size_t n, size_t size)
{
	uint8_t *p = random_bytes_new(size, 7), *whole = calloc(1, size);
	int sparse = new_file(), full = new_file();
	struct list *a, *b;

	assert_int_equal(ftruncate(sparse, (off_t)size), 0);
	for (size_t i = 0; i < n; i++) {
		write_all(sparse, p + data[i][0], data[i][1] - data[i][0], data[i][0]);
		memcpy(whole + data[i][0], p + data[i][0], data[i][1] - data[i][0]);
	}
	write_all(full, whole, size, 0);
	for (uint8_t bits = 15; bits <= 18; bits++) {
		a = run(sparse, size, bits, HASH_XXH3, whole);
		b = run(full, size, bits, HASH_XXH3, whole);
		check_equal(a, b);
		free(a);
		free(b);
	}
	close(sparse);
	close(full);
	free(p);
	free(whole);
}

static void test_holes_are_zeros(void **state)
{
	(void)state;
	check_sparse(NULL, 0, 5000);
	check_sparse(NULL, 0, 10 * MIB);
	check_sparse(NULL, 0, 10 * MIB + 1);
	check_sparse((size_t[][2]){{0, 100}}, 1, 4 * MIB);		 /* hole at the end */
	check_sparse((size_t[][2]){{4 * MIB - 1, 4 * MIB}}, 1, 4 * MIB); /* at the front */
	check_sparse((size_t[][2]){{8 * MIB - 70, 8 * MIB + 5000}}, 1, 9 * MIB);
	check_sparse((size_t[][2]){{4096, 8192}, {1 * MIB, 2 * MIB}, {3 * MIB, 3 * MIB + 4096},
			     {3 * MIB + 128 * 1024, 4 * MIB}, {7 * MIB, 7 * MIB + 1}},
		5, 12 * MIB + 333);
}

/* Bytes that this process has read until now. */
static uint64_t bytes_read(void)
{
	unsigned long long n = 0;
	FILE *f = fopen("/proc/self/io", "re");

	assert_non_null(f);
	assert_int_equal(fscanf(f, "rchar: %llu", &n), 1);
	fclose(f);
	return n;
}

static void test_huge_hole(void **state)
{
	uint64_t size = UINT64_C(1) << 40;
	uint64_t before;
	int fd = new_file();
	struct list *l;

	(void)state;
	if (ftruncate(fd, (off_t)size) != 0)
		skip(); /* this file system cannot hold such a file */
	write_all(fd, (const uint8_t *)"end", 3, size - 3);
	before = bytes_read();
	l = run(fd, size, chunk_bits_for_size(size), HASH_SHA256, NULL);
	assert_int_equal(l->n, size / CHUNK_BYTES_MAX);
	assert_true(l->v[0].zero);
	assert_false(l->v[l->n - 1].zero);
	/* the last chunk, and what is read ahead of it */
	assert_in_range(bytes_read() - before, 3, 8 * CHUNK_BYTES_MAX);
	free(l);
	close(fd);
}

static bool cancelled_at(void *data)
{
	unsigned *left = data;

	return !(*left)--;
}

/* The same chunks in the same order, whoever hashes them; and an end at any chunk leaves nothing behind. */
static void test_with_help(void **state)
{
	const uint64_t size = 20 * MIB + 12345;
	uint8_t *p = random_bytes_new(4 * MIB, 9);
	struct list *alone, *helped = calloc(1, sizeof(*helped));
	int fd = new_file();

	(void)state;
	assert_int_equal(ftruncate(fd, (off_t)size), 0);
	write_all(fd, p, 4 * MIB, 1000); /* data, a hole, data, zeros that are written, a hole */
	write_all(fd, p, 3 * MIB, 9 * MIB);
	memset(p, 0, MIB);
	write_all(fd, p, MIB, 12 * MIB);
	alone = run(fd, size, 15, HASH_SHA256, NULL);
	for (unsigned threads = 0; threads < 5; threads++) {
		struct chunker_file file = {.fd = fd, .size = size, .bits = 15, .algorithm = HASH_SHA256};
		unsigned left = 7;

		assert_int_equal(pool_new(&file.pool, threads), 0);
		helped->n = 0;
		assert_int_equal(chunker_run_file(&file, collect, helped), 0);
		check_equal(alone, helped);
		helped->n = 0;
		helped->stop_at = 3;
		assert_int_equal(chunker_run_file(&file, collect, helped), 77);
		assert_int_equal(helped->n, 3);
		helped->n = helped->stop_at = 0;
		file.cancelled = cancelled_at;
		file.data = &left;
		assert_int_equal(chunker_run_file(&file, collect, helped), -ECANCELED);
		assert_true(helped->n <= 7);
		helped->n = 0;
		file.cancelled = NULL;
		file.size = size + 1;
		assert_int_equal(chunker_run_file(&file, collect, helped), CHUNKER_CHANGED);
		helped->n = 0;
		pool_free(file.pool);
	}
	close(fd);
	free(alone);
	free(helped);
	free(p);
}

static void test_changed(void **state)
{
	struct list *l = calloc(1, sizeof(*l));
	uint8_t *p = random_bytes_new(MIB, 8);
	int fd = new_file();

	(void)state;
	write_all(fd, p, 300000, 0);
	assert_int_equal(chunker_run(fd, 300001, 15, HASH_XXH3, collect, l), CHUNKER_CHANGED);
	l->n = 0;
	assert_int_equal(chunker_run(fd, 100 * MIB, 15, HASH_XXH3, collect, l), CHUNKER_CHANGED);
	l->n = 0; /* truncated within a hole: nothing is read, and still it shows */
	assert_int_equal(ftruncate(fd, 0), 0);
	assert_int_equal(chunker_run(fd, 10 * MIB, 15, HASH_XXH3, collect, l), CHUNKER_CHANGED);
	l->n = 0;
	assert_int_equal(chunker_run(fd, 5, 15, HASH_XXH3, collect, l), CHUNKER_CHANGED);
	assert_int_equal(ftruncate(fd, 10 * MIB), 0);
	l->n = 0;
	assert_int_equal(chunker_run(fd, 10 * MIB, 15, HASH_XXH3, collect, l), 0);
	l->n = 0;
	l->stop_at = 3; /* what emit returns is passed on */
	assert_int_equal(chunker_run(fd, 10 * MIB, 15, HASH_XXH3, collect, l), 77);
	assert_int_equal(l->n, 3);
	close(fd);
	l->n = 0;
	assert_true(chunker_run(-1, 10, 15, HASH_XXH3, collect, l) < 0);
	free(p);
	free(l);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_bits_for_size),
		cmocka_unit_test(test_lengths),
		cmocka_unit_test(test_known_cuts),
		cmocka_unit_test(test_insert_at_front),
		cmocka_unit_test(test_growth_past_a_step),
		cmocka_unit_test(test_zeros),
		cmocka_unit_test(test_short),
		cmocka_unit_test(test_file_is_cut_as_memory),
		cmocka_unit_test(test_empty_file),
		cmocka_unit_test(test_holes_are_zeros),
		cmocka_unit_test(test_huge_hole),
		cmocka_unit_test(test_with_help),
		cmocka_unit_test(test_changed),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
