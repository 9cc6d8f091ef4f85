/* Who may have a session, in which order, and who gives way. */
#include "syncd/turns.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/error.h"

static void test_no_limit(void **state)
{
	struct turns t = {0};
	struct turn x[100] = {0};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(x); i++)
		assert_true(turns_ask(&t, &x[i], 0));
	assert_int_equal(turns_open(&t), 100);
	assert_false(turns_over(&t, &x[0], 1000 * TURNS_LEAST_NS));
	for (size_t i = 0; i < ARRAY_SIZE(x); i++)
		turns_end(&t, &x[i]);
	assert_null(t.first);
	turns_end(&t, &x[0]);
}

/* Those who wait are served in the order in which they asked first, however often they ask. */
static void test_order(void **state)
{
	struct turns t = {.max = 2};
	struct turn x[5] = {0};

	(void)state;
	assert_true(turns_ask(&t, &x[0], 1));
	assert_true(turns_ask(&t, &x[1], 2));
	assert_true(turns_ask(&t, &x[1], 3)); /* has it */
	for (int again = 0; again < 3; again++)
		for (size_t i = 2; i < 5; i++)
			assert_false(turns_ask(&t, &x[i], 4));
	assert_int_equal(turns_waiting(&t), 3);
	turns_end(&t, &x[1]);
	assert_false(turns_ask(&t, &x[4], 5));
	assert_false(turns_ask(&t, &x[3], 5));
	assert_true(turns_ask(&t, &x[2], 5));
	assert_int_equal(x[2].since_ns, 5);
	turns_end(&t, &x[3]); /* waits no more */
	turns_end(&t, &x[0]);
	assert_true(turns_ask(&t, &x[4], 6));
	assert_int_equal(turns_open(&t), 2);
	assert_int_equal(turns_waiting(&t), 0);
}

/* As many give way as wait, none before he had his time. */
static void test_giving_way(void **state)
{
	struct turns t = {.max = 3};
	struct turn x[5] = {0};
	int64_t later = TURNS_LEAST_NS + 2;

	(void)state;
	for (size_t i = 0; i < 3; i++)
		assert_true(turns_ask(&t, &x[i], (int64_t)i));
	assert_false(turns_over(&t, &x[0], later));
	assert_false(turns_ask(&t, &x[3], later));
	assert_false(turns_over(&t, &x[0], TURNS_LEAST_NS - 1));
	assert_true(turns_over(&t, &x[0], later));
	assert_false(turns_over(&t, &x[0], later)); /* it is ending */
	assert_false(turns_over(&t, &x[1], later));
	assert_false(turns_ask(&t, &x[4], later));
	assert_true(turns_over(&t, &x[1], later));
	assert_false(turns_over(&t, &x[2], later));
	assert_int_equal(turns_open(&t), 3);
	turns_end(&t, &x[0]);
	assert_false(turns_ask(&t, &x[0], later)); /* behind the others */
	assert_true(turns_ask(&t, &x[3], later));
	turns_end(&t, &x[1]);
	assert_false(turns_ask(&t, &x[0], later));
	assert_true(turns_ask(&t, &x[4], later));
	assert_false(turns_ask(&t, &x[0], later));
	assert_false(turns_over(&t, &x[3], later + 1));
	assert_true(turns_over(&t, &x[2], later));
	turns_end(&t, &x[2]);
	assert_true(turns_ask(&t, &x[0], later));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_no_limit),
		cmocka_unit_test(test_order),
		cmocka_unit_test(test_giving_way),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
