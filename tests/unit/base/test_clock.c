/* tests/unit/base/test_clock.c — what is a jump of the wall clock, and what is not. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/clock.h"

static void test_jumps(void **state)
{
	struct clock_watch w = {0};
	int64_t wall = INT64_C(1700000000) * CLOCK_NS_PER_S, boot = 77 * CLOCK_NS_PER_S;

	(void)state;
	assert_false(clock_jumped(&w, wall, boot));
	for (unsigned i = 0; i < 100000; i++) { /* slewed, by 500 millionths, for a day: 50 s in sum */
		wall += CLOCK_NS_PER_S + 500000;
		boot += CLOCK_NS_PER_S;
		assert_false(clock_jumped(&w, wall, boot));
	}
	wall += 86400 * CLOCK_NS_PER_S; /* suspended */
	boot += 86400 * CLOCK_NS_PER_S;
	assert_false(clock_jumped(&w, wall, boot));
	wall += CLOCK_JUMP_NS + CLOCK_NS_PER_S;
	assert_true(clock_jumped(&w, wall, boot));
	assert_false(clock_jumped(&w, wall, boot));
	wall -= 3600 * CLOCK_NS_PER_S;
	assert_true(clock_jumped(&w, wall, boot));
	assert_false(clock_jumped(&w, wall + CLOCK_NS_PER_S, boot + CLOCK_NS_PER_S));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_jumps),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
