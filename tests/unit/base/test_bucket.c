/* The rate that a token bucket holds, with takers that come late, in turn, or from below another bucket. Nobody sleeps. */
#include "base/bucket.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/error.h"

#define START_NS (1000 * CLOCK_NS_PER_S)

/* One who takes n again and again, each time `late` after it was earned. How much he had within `seconds`. */
static uint64_t take_for(struct bucket *b, uint64_t n, int64_t late_ns, int64_t seconds)
{
	uint64_t had = 0;

	for (int64_t now = START_NS;;) {
		int64_t wait = bucket_take(b, n, now);

		assert_true(wait >= 0);
		if (wait)
			now += wait + late_ns;
		if (now > START_NS + seconds * CLOCK_NS_PER_S)
			return had;
		had += n;
	}
}

static void test_no_limit(void **state)
{
	struct bucket b = {0}, below = {.above = &b};

	(void)state;
	assert_int_equal(bucket_rate(NULL), 0);
	assert_int_equal(bucket_rate(&below), 0);
	assert_int_equal(bucket_take(NULL, 1, START_NS), 0);
	for (int i = 0; i < 1000; i++)
		assert_int_equal(bucket_take(&below, UINT64_C(1) << 30, START_NS), 0);
}

/* From 1 KiB/s to 10 GB/s, in small and large portions; a timer that rings a little late takes nothing away. */
static void test_rate_holds(void **state)
{
	static const uint64_t rates[] = {1024, 100000, 1000003, UINT64_C(1) << 20, 125000000, UINT64_C(10000000000)};
	static const int64_t lates[] = {0, 1, CLOCK_NS_PER_MS, 20 * CLOCK_NS_PER_MS};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(rates); i++) {
		for (size_t j = 0; j < ARRAY_SIZE(lates); j++) {
			for (uint64_t part = 64; part <= 1024; part *= 4) {
				struct bucket b = {.rate = rates[i]};
				uint64_t had = take_for(&b, rates[i] / part, lates[j], 10);

				assert_in_range(had, rates[i] * 995 / 100, rates[i] * 1015 / 100);
			}
		}
	}
}

/* What was not taken for an hour is a tenth of a second's. */
static void test_burst_is_bounded(void **state)
{
	struct bucket b = {.rate = 1000000};
	int64_t now = START_NS;
	uint64_t at_once = 0;

	(void)state;
	for (int hour = 0; hour < 3; hour++, now += 3600 * CLOCK_NS_PER_S) {
		for (at_once = 0; !bucket_take(&b, 1000, now); at_once += 1000)
			;
		assert_int_equal(at_once, 100000);
	}
}

/* More than is there may be taken: the next one waits for it. */
static void test_debt(void **state)
{
	struct bucket b = {.rate = 1000};

	(void)state;
	assert_int_equal(bucket_take(&b, 10100, START_NS), 10 * CLOCK_NS_PER_S);
	assert_int_equal(bucket_take(&b, 1000, START_NS), 11 * CLOCK_NS_PER_S);
	assert_int_equal(bucket_take(&b, 1000, START_NS + 11 * CLOCK_NS_PER_S), CLOCK_NS_PER_S);
}

struct taker {
	struct bucket b;
	int64_t at_ns; /* what he took last is earned */
	uint64_t had;
};

/* Each takes when what he took before is earned; the one whose turn is first goes first. */
static void share(struct taker *t, size_t count, int64_t seconds)
{
	for (size_t i = 0; i < count; i++)
		t[i].at_ns = START_NS;
	for (;;) {
		struct taker *first = t;
		uint64_t n;

		for (size_t i = 1; i < count; i++)
			if (t[i].at_ns < first->at_ns)
				first = &t[i];
		if (first->at_ns > START_NS + seconds * CLOCK_NS_PER_S)
			return;
		n = bucket_portion(&first->b);
		first->had += n;
		first->at_ns += bucket_take(&first->b, n, first->at_ns);
	}
}

/* Ten at one bucket: all of them get the same, and together what one would. */
static void test_shares_are_equal(void **state)
{
	struct bucket all = {.rate = 1000000};
	struct taker t[10] = {0};
	uint64_t sum = 0;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(t); i++)
		t[i].b.above = &all;
	share(t, ARRAY_SIZE(t), 20);
	for (size_t i = 0; i < ARRAY_SIZE(t); i++) {
		assert_in_range(t[i].had, 1980000, 2130000); /* the burst was one's */
		sum += t[i].had;
	}
	assert_in_range(sum, 19900000, 20300000);
}

/* The lower of the limits holds, and what one may not use is the others'. */
static void test_below_another(void **state)
{
	struct bucket all = {.rate = 10000000};
	struct taker t[5] = {{.b = {.rate = 200000}}};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(t); i++)
		t[i].b.above = &all;
	assert_int_equal(bucket_rate(&t[0].b), 200000);
	assert_int_equal(bucket_rate(&t[1].b), 10000000);
	share(t, ARRAY_SIZE(t), 20);
	assert_in_range(t[0].had, 3900000, 4050000);
	for (size_t i = 1; i < ARRAY_SIZE(t); i++)
		assert_in_range(t[i].had, 48000000, 50500000);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_no_limit),
		cmocka_unit_test(test_rate_holds),
		cmocka_unit_test(test_burst_is_bounded),
		cmocka_unit_test(test_debt),
		cmocka_unit_test(test_shares_are_equal),
		cmocka_unit_test(test_below_another),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
