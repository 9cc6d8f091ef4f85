/* tests/unit/merkle/test_match.c */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "merkle/match.h"
#include "tests/random.h"

static uint64_t random_state;

static uint64_t random_number(void)
{
	return test_random(&random_state);
}

static size_t below(size_t n)
{
	return (size_t)(random_number() % n);
}

static void file_record(struct record *ret)
{
	*ret = (struct record){.live = true, .kind = RECORD_FILE, .mode = 0644, .mtime_ns = 7};
	ret->content.chunk_bits = CHUNK_BITS_MIN;
}

static void directory_record(struct record *ret)
{
	*ret = (struct record){.live = true, .kind = RECORD_DIRECTORY, .mode = 0755};
}

/* All of it written by one event. */
static void write_by(struct record *r, uint64_t inc, uint64_t counter)
{
	struct version_dot dot = {inc, counter};

	assert_int_equal(version_vector_raise(&r->vv, dot, NULL), 0);
	assert_int_equal(version_dots_add(&r->dots, dot), 0);
	assert_int_equal(version_dots_add(&r->adots, dot), 0);
	if (r->kind != RECORD_DIRECTORY)
		assert_int_equal(version_dots_add(&r->mdots, dot), 0);
}

/* Told and heard: the bytes that it took. */
static size_t tell(struct record *v, size_t n)
{
	struct buf b = BUF_INIT;
	struct match_table table = {0};
	struct match_writer w = {.out = &b, .table = &table};
	struct match_reader r;
	size_t bytes;

	for (size_t i = 0; i < n; i++)
		match_add(&w, &v[i]);
	match_end(&w);
	assert_int_equal(buf_error(&b), 0);
	bytes = b.len;
	r = (struct match_reader){.c = cursor_over(b.data, b.len), .table = &table};
	for (size_t i = 0; i < n; i++) {
		struct record got = {0};

		assert_int_equal(record_copy(&got, &v[i]), 0); /* its values; other versions */
		version_dots_deinit(&got.lost);
		version_vector_deinit(&got.vv);
		assert_int_equal(match_next(&r, &got), 0);
		assert_true(record_equal(&got, &v[i]));
		record_deinit(&got);
	}
	assert_int_equal(match_finish(&r), 0);
	free(table.inc);
	buf_deinit(&b);
	return bytes;
}

static void free_records(struct record *v, size_t n)
{
	for (size_t i = 0; i < n; i++)
		record_deinit(&v[i]);
}

static void test_a_scan_costs_nothing(void **state)
{
	struct record v[1000];

	(void)state;
	for (size_t i = 0; i < 1000; i++) {
		(i % 10 ? file_record : directory_record)(&v[i]);
		write_by(&v[i], 77, 1000 + i);
	}
	assert_true(tell(v, 1000) < 20);
	free_records(v, 1000);
}

static void test_out_of_order(void **state)
{
	struct record v[1000];

	(void)state;
	random_state = 1;
	for (size_t i = 0; i < 1000; i++) {
		file_record(&v[i]);
		write_by(&v[i], 77, 1 + below(10000));
	}
	assert_true(tell(v, 1000) < 4000);
	free_records(v, 1000);
}

/* Two pasts, joined. */
static void test_more_dots(void **state)
{
	struct record v[100];

	(void)state;
	for (size_t i = 0; i < 100; i++) {
		(i % 10 ? file_record : directory_record)(&v[i]);
		write_by(&v[i], 77, 1000 + i);
		write_by(&v[i], 5, 3 + i);
	}
	assert_true(tell(v, 100) < 30);
	free_records(v, 100);
}

static void random_record(struct record *ret)
{
	size_t n = 1 + below(below(4) ? 3 : 14);

	(below(3) ? file_record : directory_record)(ret);
	for (size_t i = 0; i < n; i++) {
		struct version_dot dot = {1 + below(5), 1 + (below(3) ? below(100) : random_number() >> 2)};
		size_t which = below(16);

		if (which & 1 || !ret->dots.n)
			assert_int_equal(version_dots_add(&ret->dots, dot), 0);
		if (which & 2 || !ret->adots.n)
			assert_int_equal(version_dots_add(&ret->adots, dot), 0);
		if (ret->kind != RECORD_DIRECTORY && (which & 4 || !ret->mdots.n))
			assert_int_equal(version_dots_add(&ret->mdots, dot), 0);
		if (which & 8)
			assert_int_equal(version_dots_add(&ret->lost, dot), 0);
		assert_int_equal(version_vector_raise(&ret->vv, dot, NULL), 0);
	}
}

static void test_any_versions(void **state)
{
	struct record v[40];

	(void)state;
	random_state = 2;
	for (int round = 0; round < 300; round++) {
		size_t n = 1 + below(40);

		for (size_t i = 0; i < n; i++) {
			random_record(&v[i]);
			if (i && !below(3)) {
				record_deinit(&v[i]);
				assert_int_equal(record_copy(&v[i], &v[i - 1]), 0);
			}
		}
		tell(v, n);
		free_records(v, n);
	}
}

static void test_more_incarnations_than_the_table_has(void **state)
{
	static struct record v[MATCH_INCARNATIONS_MAX + 10];

	(void)state;
	for (size_t i = 0; i < MATCH_INCARNATIONS_MAX + 10; i++) {
		file_record(&v[i]);
		write_by(&v[i], i + 1, 1);
	}
	tell(v, MATCH_INCARNATIONS_MAX + 10);
	free_records(v, MATCH_INCARNATIONS_MAX + 10);
}

static void digest(const char *path, const struct record *r, uint64_t seed, struct match_digest *ret)
{
	struct buf b = BUF_INIT;

	match_values(&b, path, r);
	assert_int_equal(match_digest(HASH_SHA256, seed, &b, ret), 0);
	buf_deinit(&b);
}

static void differs(const struct record *was, const char *path, const struct record *r, uint64_t seed, bool expected)
{
	struct match_digest a, b;

	digest("a/b", was, 1, &a);
	digest(path, r, seed, &b);
	assert_int_equal(!match_digest_equal(&a, &b), expected);
}

static void test_digests(void **state)
{
	struct record was, r;

	(void)state;
	file_record(&was);
	r = was;
	write_by(&r, 3, 4); /* versions are none of it */
	differs(&was, "a/b", &r, 1, false);
	differs(&was, "a/c", &r, 1, true);
	differs(&was, "a/b", &r, 2, true);
	r.mode = 0600;
	differs(&was, "a/b", &r, 1, true);
	r.mode = was.mode;
	r.uid = 1;
	differs(&was, "a/b", &r, 1, true);
	r.uid = was.uid;
	r.mtime_ns++;
	differs(&was, "a/b", &r, 1, true);
	r.mtime_ns--;
	r.content.root.bytes[31] = 1;
	differs(&was, "a/b", &r, 1, true);
	record_deinit(&r);
	directory_record(&was);
	r = was;
	r.mtime_ns = 5; /* a hint */
	differs(&was, "a/b", &r, 1, false);
}

static int hear(const void *p, size_t n, size_t incarnations, size_t records)
{
	uint64_t inc[4] = {7, 8, 0, 9};
	struct match_table table = {.inc = inc, .n = incarnations};
	uint8_t *exact = calloc(1, n ? n : 1); /* so that a sanitizer sees the first byte too far */
	struct match_reader r = {.c = cursor_over(exact, n), .table = &table};
	int e = 0;

	memcpy(exact, p, n);
	for (size_t i = 0; i < records && e == 0; i++) {
		struct record got;

		file_record(&got);
		e = match_next(&r, &got);
		record_deinit(&got);
	}
	e = e ? e : match_finish(&r);
	free(exact);
	return e;
}

static void test_what_can_not_be(void **state)
{
	(void)state;
	assert_int_equal(hear("\3\1\0\1\1\0\1\1\5", 9, 1, 1), 0);
	assert_int_equal(hear("\3\1\0\1\1\0\1\1\5\4", 10, 1, 3), 0);
	assert_int_equal(hear("\3\1\0\1\1\0\1\1\5\1\3", 11, 1, 2), 0);
	assert_int_equal(hear("", 0, 1, 1), -EBADMSG);
	assert_int_equal(hear("\3\1\0\1\1\0\1\1\5\4", 10, 1, 2), -EBADMSG);	 /* the run goes on */
	assert_int_equal(hear("\3\1\0\1\1\0\1\1\5\4", 10, 1, 4), -EBADMSG);	 /* it ends */
	assert_int_equal(hear("\4", 1, 1, 1), -EBADMSG);			 /* like nothing */
	assert_int_equal(hear("\1\3", 2, 1, 1), -EBADMSG);
	assert_int_equal(hear("\1", 1, 1, 1), -EBADMSG);
	assert_int_equal(hear("\0", 1, 1, 1), -EBADMSG);
	assert_int_equal(hear("\7", 1, 1, 1), -EBADMSG);
	assert_int_equal(hear("\3\0\1\1\0\1\1", 7, 1, 1), -EBADMSG);		 /* no dots */
	assert_int_equal(hear("\3\x09\0\0\0\0\0\0\0\0\0\1\1\0\1\1\5\5\5\5\5\5\5\5\5", 25, 1, 1), -EBADMSG);
	assert_int_equal(hear("\3\1\1\1\1\0\1\1\5", 9, 1, 1), -EBADMSG);	 /* not in the table */
	assert_int_equal(hear("\3\1\0\1\1\0\1\1\5", 9, 0, 1), -EBADMSG);
	assert_int_equal(hear("\3\1\2\1\1\0\1\1\5", 9, 3, 1), -EBADMSG);	 /* incarnation 0 */
	assert_int_equal(hear("\3\1\0\3\1\0\1\1\5", 9, 1, 1), -EBADMSG);	 /* of two dots */
	assert_int_equal(hear("\3\1\0\1\1\0\1\1\0", 9, 1, 1), -EBADMSG);	 /* counter 0 */
	assert_int_equal(hear("\3\1\0\1\0\0\1\1\5", 9, 1, 1), -EBADMSG);	 /* nobody wrote it */
	assert_int_equal(hear("\3\1\0\0\1\0\1\1\5", 9, 1, 1), -EBADMSG);	 /* a dot outside of the vector */
	assert_int_equal(hear("\3\2\0\0\3\1\0\1\1\5\6", 11, 1, 1), -EBADMSG); /* two entries of one incarnation */
	assert_int_equal(hear("\3\1\0\1\1\0\1\1\5\1\x09", 11, 1, 2), -EBADMSG); /* 5 - 5 … */
	assert_int_equal(hear("\5\0\0\0\0\0", 6, 1, 1), -EBADMSG);		 /* in full: nothing */
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_a_scan_costs_nothing),
		cmocka_unit_test(test_out_of_order),
		cmocka_unit_test(test_more_dots),
		cmocka_unit_test(test_any_versions),
		cmocka_unit_test(test_more_incarnations_than_the_table_has),
		cmocka_unit_test(test_digests),
		cmocka_unit_test(test_what_can_not_be),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
