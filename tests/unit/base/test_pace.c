/* Work that is held back has no more than its share, with any number of threads; and nobody sleeps when there is a hurry. Only what a
 * busy machine cannot make wrong is asserted: that it takes long enough. */
#include "base/pace.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <time.h>

#include <cmocka.h>

#include "base/bucket.h"
#include "base/clock.h"
#include "base/pool.h"

#define JOBS 200
#define JOB_NS CLOCK_NS_PER_MS

static int64_t cpu_ns(clockid_t clock)
{
	struct timespec t;

	clock_gettime(clock, &t);
	return (int64_t)t.tv_sec * CLOCK_NS_PER_S + t.tv_nsec;
}

static void work(struct pool_job *job)
{
	int64_t until = cpu_ns(CLOCK_THREAD_CPUTIME_ID) + JOB_NS;

	(void)job;
	while (cpu_ns(CLOCK_THREAD_CPUTIME_ID) < until)
		;
}

/* JOBS of JOB_NS each, on several threads and this one. What they took of the processors, and how long it took. */
static void run(struct pace *pace, unsigned threads, int64_t *ret_cpu_ns, int64_t *ret_ns)
{
	static struct pool_job jobs[JOBS];
	struct pool *pool;
	int64_t cpu = cpu_ns(CLOCK_PROCESS_CPUTIME_ID), begin = clock_monotonic_ns();

	assert_int_equal(pool_new(&pool, threads), 0);
	pool_set_pace(pool, pace);
	pace_begin(pace);
	for (size_t i = 0; i < JOBS; i++) {
		jobs[i] = (struct pool_job){.run = work};
		pool_add(pool, &jobs[i], true);
	}
	for (size_t i = 0; i < JOBS; i++)
		pool_wait(pool, &jobs[i]);
	*ret_ns = clock_monotonic_ns() - begin;
	*ret_cpu_ns = cpu_ns(CLOCK_PROCESS_CPUTIME_ID) - cpu;
	pool_free(pool);
}

static void test_share_of_processor(void **state)
{
	struct pace pace = {0};
	int64_t cpu, ns;

	(void)state;
	assert_int_equal(pace_limits_new(&pace.limits, 25, 0), 0);
	for (unsigned threads = 1; threads <= 5; threads += 4) {
		run(&pace, threads, &cpu, &ns);
		assert_true(cpu >= JOBS * JOB_NS);
		/* a burst may come first; what threads do last is not waited for */
		assert_true(ns >= JOBS * JOB_NS * 100 / 25 * 95 / 100 - BUCKET_BURST_NS - (threads + 1) * JOB_NS * 4);
	}
	pace_limits_free(pace.limits);
}

static void test_reading(void **state)
{
	struct pace pace = {0};
	int64_t begin = clock_monotonic_ns();

	(void)state;
	assert_int_equal(pace_limits_new(&pace.limits, 0, 10000000), 0);
	for (int i = 0; i < 50; i++)
		pace_read(&pace, 100000);
	pace_worked(&pace); /* which is not limited */
	assert_true(clock_monotonic_ns() - begin >= CLOCK_NS_PER_S / 2 - BUCKET_BURST_NS - 10 * CLOCK_NS_PER_MS);
	pace_limits_free(pace.limits);
}

/* Who sleeps for hours wakes up. */
static void *sleep_long(void *data)
{
	pace_read(data, UINT64_C(1) << 30);
	return NULL;
}

static void test_hurry(void **state)
{
	struct pace pace = {0};
	pthread_t thread;
	int64_t cpu, ns;

	(void)state;
	assert_int_equal(pace_limits_new(&pace.limits, 1, 1024), 0);
	assert_int_equal(pthread_create(&thread, NULL, sleep_long, &pace), 0);
	nanosleep(&(struct timespec){.tv_nsec = 30000000}, NULL);
	atomic_store(&pace.hurry, true);
	pthread_join(thread, NULL);
	run(&pace, 2, &cpu, &ns); /* 20 s otherwise */
	pace_read(&pace, UINT64_C(1) << 30);
	pace_limits_free(pace.limits);
}

static void test_no_limit(void **state)
{
	struct pace pace = {0};
	int64_t cpu, ns;

	(void)state;
	assert_int_equal(pace_limits_new(&pace.limits, 0, 0), 0);
	assert_null(pace.limits);
	pace_read(&pace, UINT64_MAX);
	pace_read(NULL, UINT64_MAX);
	run(&pace, 2, &cpu, &ns);
	run(NULL, 2, &cpu, &ns);
	pace_limits_free(NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_share_of_processor),
		cmocka_unit_test(test_reading),
		cmocka_unit_test(test_hurry),
		cmocka_unit_test(test_no_limit),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
