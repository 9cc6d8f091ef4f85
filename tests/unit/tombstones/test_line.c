/* tests/unit/tombstones/test_line.c — what others name of our incarnations since the start. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tombstones/line.h"

/* 1 (before the start, left at 10) ── 2 (left at 20) ── 3 (counted to 30); 2 ── 9, left at 15 by another past; 7: a peer. */
static struct version_lineage *a_lineage(void)
{
	static const struct version_incarnation all[] = {
		{.inc = 1, .replica = 5},
		{.inc = 2, .parent = 1, .from = 10, .replica = 5},
		{.inc = 3, .parent = 2, .from = 20, .replica = 5},
		{.inc = 9, .parent = 2, .from = 15, .replica = 5},
		{.inc = 8, .parent = 1, .from = 12, .replica = 5}, /* another past of the time before the start */
		{.inc = 7, .replica = 6},
	};
	struct version_lineage *l;

	assert_int_equal(version_lineage_new(&l), 0);
	for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++)
		assert_int_equal(version_lineage_add(l, &all[i]), 0);
	return l;
}

static const struct line line = {.first = 2, .last = {3, 30}};

static struct version_vector one(uint64_t inc, uint64_t counter, const struct version_lineage *l)
{
	struct version_vector v = {0};

	if (inc)
		assert_int_equal(version_vector_raise(&v, (struct version_dot){inc, counter}, l), 0);
	return v;
}

static void test_exceeded(void **state)
{
	static const struct {
		uint64_t inc, counter;
		bool exceeded;
	} cases[] = {
		{0, 0, false}, {3, 30, false}, {3, 31, true}, {2, 20, false}, {2, 21, true}, {1, 10, false},
		{1, 99, false}, /* a disk that was restored while nothing ran */
		{8, 99, false}, {9, 16, true}, {7, 99, false}, {77, 1, false},
	};
	struct version_lineage *l = a_lineage();
	struct line unused = {.last = {1, 10}};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct version_vector v = one(cases[i].inc, cases[i].counter, l);

		assert_int_equal(line_exceeded(&line, &v, l), cases[i].exceeded);
		assert_false(line_exceeded(&unused, &v, l));
		version_vector_deinit(&v);
	}
	version_lineage_free(l);
}

static void test_named(void **state)
{
	static const struct {
		uint64_t inc, counter;
		struct version_dot named;
	} cases[] = {
		{0, 0, {1, 10}}, {7, 99, {1, 10}}, {1, 5, {1, 10}}, {2, 13, {2, 13}}, {2, 99, {2, 20}}, {3, 25, {3, 25}},
	};
	struct version_lineage *l = a_lineage();

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct version_vector v = one(cases[i].inc, cases[i].counter, l);
		struct version_dot named = line_named(&line, &v, l);

		assert_int_equal(named.inc, cases[i].named.inc);
		assert_int_equal(named.counter, cases[i].named.counter);
		version_vector_deinit(&v);
	}
	version_lineage_free(l);
}

static void test_after(void **state)
{
	struct version_lineage *l = a_lineage();
	struct version_dot start = {1, 10}, inside = {2, 13};

	(void)state;
	assert_true(line_after(&line, inside, (struct version_dot){2, 14}, l));
	assert_true(line_after(&line, inside, (struct version_dot){3, 21}, l));
	assert_false(line_after(&line, inside, (struct version_dot){2, 13}, l));
	assert_false(line_after(&line, inside, (struct version_dot){1, 9}, l));
	assert_false(line_after(&line, inside, (struct version_dot){7, 99}, l));
	assert_true(line_after(&line, start, (struct version_dot){2, 11}, l));
	assert_false(line_after(&line, start, (struct version_dot){1, 11}, l));
	assert_false(line_after(&line, (struct version_dot){3, 30}, (struct version_dot){2, 20}, l));
	version_lineage_free(l);
}

static void test_cut(void **state)
{
	struct version_lineage *l = a_lineage();
	struct version_vector v = one(3, 30, l), w = one(7, 4, l);

	(void)state;
	assert_int_equal(version_vector_raise(&v, (struct version_dot){7, 4}, l), 0);
	assert_int_equal(line_cut(&line, (struct version_dot){2, 13}, &v, l), LINE_CUT);
	assert_int_equal(v.n, 2);
	assert_int_equal(version_vector_get(&v, 2), 13);
	assert_int_equal(version_vector_get(&v, 7), 4);
	assert_int_equal(line_cut(&line, (struct version_dot){2, 13}, &v, l), 0);
	assert_int_equal(line_cut(&line, (struct version_dot){1, 10}, &v, l), LINE_CUT);
	assert_int_equal(version_vector_get(&v, 1), 10);
	assert_int_equal(version_vector_get(&v, 2), 0);
	assert_int_equal(line_cut(&line, (struct version_dot){1, 10}, &w, l), 0);
	assert_int_equal(w.n, 1);
	version_vector_deinit(&v);
	version_vector_deinit(&w);
	version_lineage_free(l);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_exceeded),
		cmocka_unit_test(test_named),
		cmocka_unit_test(test_after),
		cmocka_unit_test(test_cut),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
