/* The waits between attempts: their bounds, doubling, cap, and what a success forgets. */
#include "syncd/schedule.h"

#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "base/error.h"

static const uint64_t randoms[] = {0, 1, 2, 399, 400, 401, 799, 800, 801, 12345678901, UINT64_MAX - 1, UINT64_MAX};

/* What a wait without jitter would be. */
static int64_t plain_wait(unsigned failures)
{
	int64_t ms = SCHEDULE_RETRY_MIN_MS;

	while (failures-- && ms < SCHEDULE_RETRY_MAX_MS)
		ms *= 2;
	return ms < SCHEDULE_RETRY_MAX_MS ? ms : SCHEDULE_RETRY_MAX_MS;
}

static void test_waits_stay_within_a_fifth(void **state)
{
	(void)state;
	for (unsigned failures = 0; failures < 20; failures++) {
		for (size_t i = 0; i < ARRAY_SIZE(randoms); i++) {
			struct schedule s = {.interval_ms = 60000, .failures = failures};
			int64_t plain = plain_wait(failures), wait = schedule_failed(&s, randoms[i]);

			assert_in_range(wait, plain * 8 / 10, plain * 12 / 10);
			assert_int_equal(s.failures, failures + 1);
		}
	}
}

/* Both ends of the range are reached, and the middle. */
static void test_jitter_uses_its_whole_range(void **state)
{
	struct schedule s = {.interval_ms = 60000};
	int64_t least = INT64_MAX, most = 0;

	(void)state;
	for (uint64_t random = 0; random < 24001; random++) {
		int64_t wait = schedule_worked(&s, random);

		least = wait < least ? wait : least;
		most = wait > most ? wait : most;
	}
	assert_int_equal(least, 48000);
	assert_int_equal(most, 72000);
	assert_int_equal(schedule_worked(&s, 12000), 60000);
}

static void test_waits_double_up_to_the_cap(void **state)
{
	struct schedule s = {.interval_ms = 60000};
	int64_t before = 0;

	(void)state;
	for (unsigned i = 0; i < 12; i++) {
		int64_t wait = schedule_failed(&s, 0); /* the least of each range */

		if (before && wait < SCHEDULE_RETRY_MAX_MS * 8 / 10)
			assert_int_equal(wait, before * 2);
		assert_true(wait >= before);
		before = wait;
	}
	assert_int_equal(before, SCHEDULE_RETRY_MAX_MS * 8 / 10);
	s.failures = 0;
	assert_int_equal(schedule_failed(&s, 0), SCHEDULE_RETRY_MIN_MS * 8 / 10);
}

/* A peer that was away for years: the count neither overflows the wait nor, wrapping, makes it negative. */
static void test_very_many_failures(void **state)
{
	struct schedule s = {.interval_ms = 60000, .failures = UINT_MAX - 1};

	(void)state;
	for (unsigned i = 0; i < 3; i++)
		assert_in_range(schedule_failed(&s, randoms[i]), SCHEDULE_RETRY_MAX_MS * 8 / 10, SCHEDULE_RETRY_MAX_MS * 12 / 10);
}

static void test_success_forgets_failures(void **state)
{
	struct schedule s = {.interval_ms = 30000};

	(void)state;
	for (unsigned i = 0; i < 5; i++)
		schedule_failed(&s, i);
	assert_in_range(schedule_worked(&s, 77), 24000, 36000);
	assert_int_equal(s.failures, 0);
	assert_in_range(schedule_failed(&s, 77), SCHEDULE_RETRY_MIN_MS * 8 / 10, SCHEDULE_RETRY_MIN_MS * 12 / 10);
	assert_int_equal(s.failures, 1);
}

static void test_tiny_intervals(void **state)
{
	(void)state;
	for (int64_t interval = 0; interval < 12; interval++) {
		struct schedule s = {.interval_ms = interval};

		for (size_t i = 0; i < ARRAY_SIZE(randoms); i++)
			assert_in_range(schedule_worked(&s, randoms[i]), interval * 8 / 10, interval * 12 / 10);
	}
}

#define S INT64_C(1000000000)

static void test_recent(void **state)
{
	struct schedule_recent r = {0};

	(void)state;
	assert_int_equal(schedule_recent(&r, 0, 1000 * S), 0);
	assert_int_equal(schedule_recent(&r, 7, 1000 * S), 7);
	assert_int_equal(schedule_recent(&r, 5, 1030 * S), 12);
	assert_int_equal(schedule_recent(&r, 0, 1054 * S), 12);
	assert_int_equal(schedule_recent(&r, 0, 1061 * S), 5);
	assert_int_equal(schedule_recent(&r, 1, 1084 * S), 6);
	assert_int_equal(schedule_recent(&r, 0, 5000 * S), 0);
	assert_int_equal(schedule_recent(&r, 3, 5000 * S), 3);
}

/* What trickles on and on does not add up. */
static void test_recent_is_not_all(void **state)
{
	struct schedule_recent r = {0};

	(void)state;
	for (int64_t s = 0; s < 100000; s++)
		assert_in_range(schedule_recent(&r, 1, s * S), s < 56 ? s + 1 : 56, s < 60 ? s + 1 : 60);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_waits_stay_within_a_fifth),
		cmocka_unit_test(test_jitter_uses_its_whole_range),
		cmocka_unit_test(test_waits_double_up_to_the_cap),
		cmocka_unit_test(test_very_many_failures),
		cmocka_unit_test(test_success_forgets_failures),
		cmocka_unit_test(test_tiny_intervals),
		cmocka_unit_test(test_recent),
		cmocka_unit_test(test_recent_is_not_all),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
