/* tests/unit/base/test_pool.c — every job is done once, whoever does it; who waits helps; and what is taken back is never done. */
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/error.h"
#include "base/pool.h"

#define JOBS 2000

struct job {
	struct pool_job pool;
	atomic_uint runs;
	unsigned work; /* turns of a loop */
	struct pool *inner; /* NULL, or where it adds jobs of its own */
};

static void spin(unsigned turns)
{
	for (volatile unsigned i = 0; i < turns; i++)
		;
}

static void run_job(struct pool_job *job)
{
	struct job *j = (struct job *)job;
	struct job own[3] = {{.work = 10}, {.work = 20}, {.work = 30}};

	atomic_fetch_add(&j->runs, 1);
	spin(j->work);
	if (!j->inner)
		return;
	for (size_t i = 0; i < ARRAY_SIZE(own); i++) {
		own[i].pool.run = run_job;
		pool_add(j->inner, &own[i].pool, true);
	}
	for (size_t i = 0; i < ARRAY_SIZE(own); i++) {
		pool_wait(j->inner, &own[i].pool);
		assert_int_equal(own[i].runs, 1);
	}
}

static void many(unsigned threads, bool nested)
{
	struct job *jobs = calloc(JOBS, sizeof(*jobs));
	struct pool *p;

	assert_int_equal(pool_new(&p, threads), 0);
	for (unsigned i = 0; i < JOBS; i++) {
		jobs[i].pool.run = run_job;
		jobs[i].work = i % 7 * 100;
		jobs[i].inner = nested ? p : NULL;
		pool_add(p, &jobs[i].pool, i % 3 == 0);
		if (i >= 64) {
			pool_help(p, &jobs[i - 10].pool);
			pool_wait(p, &jobs[i - 64].pool);
			assert_true(pool_done(p, &jobs[i - 64].pool));
		}
	}
	for (unsigned i = JOBS - 64; i < JOBS; i++)
		pool_wait(p, &jobs[i].pool);
	for (unsigned i = 0; i < JOBS; i++)
		assert_int_equal(jobs[i].runs, 1);
	pool_free(p);
	free(jobs);
}

static void test_each_job_once(void **state)
{
	(void)state;
	many(1, false);
	many(4, false);
	many(POOL_THREADS_MAX + 5, true);
}

static void test_no_threads(void **state)
{
	struct job j = {.pool.run = run_job};

	(void)state;
	many(0, true);
	pool_add(NULL, &j.pool, false);
	assert_int_equal(j.runs, 1);
	assert_true(pool_done(NULL, &j.pool));
	pool_wait(NULL, &j.pool);
	assert_false(pool_cancel(NULL, &j.pool));
	assert_int_equal(j.runs, 1);
	pool_free(NULL);
}

struct where {
	struct pool_job pool;
	pthread_t thread;
};

static void note_thread(struct pool_job *job)
{
	((struct where *)job)->thread = pthread_self();
}

/* A single light job wakes nobody: who waits does it. */
static void test_waiting_helps(void **state)
{
	struct where w = {.pool.run = note_thread};
	struct pool *p;

	(void)state;
	assert_int_equal(pool_new(&p, 4), 0);
	for (unsigned i = 0; i < 100; i++) {
		pool_add(p, &w.pool, false);
		assert_false(pool_done(p, &w.pool));
		pool_wait(p, &w.pool);
		assert_true(pthread_equal(w.thread, pthread_self()));
	}
	pool_free(p);
}

struct gate {
	struct pool_job pool;
	atomic_bool begun, open;
};

static void pass_gate(struct pool_job *job)
{
	struct gate *g = (struct gate *)job;

	atomic_store(&g->begun, true);
	while (!atomic_load(&g->open))
		sched_yield();
}

static void test_cancel(void **state)
{
	struct gate gate = {.pool.run = pass_gate};
	struct job jobs[3] = {0};
	struct pool *p;

	(void)state;
	assert_int_equal(pool_new(&p, 1), 0);
	pool_add(p, &gate.pool, true);
	while (!atomic_load(&gate.begun))
		sched_yield();
	for (unsigned i = 0; i < 3; i++) {
		jobs[i].pool.run = run_job;
		pool_add(p, &jobs[i].pool, true);
	}
	assert_true(pool_cancel(p, &jobs[1].pool));
	assert_true(pool_cancel(p, &jobs[0].pool));
	pool_wait(p, &jobs[2].pool); /* the only thread is at the gate: it is done here */
	assert_false(pool_cancel(p, &jobs[2].pool));
	assert_int_equal(jobs[0].runs + jobs[1].runs, 0);
	assert_int_equal(jobs[2].runs, 1);
	atomic_store(&gate.open, true);
	assert_false(pool_cancel(p, &gate.pool)); /* waits for it */
	assert_true(pool_done(p, &gate.pool));
	pool_free(p);
}

static void test_usual(void **state)
{
	(void)state;
	assert_in_range(pool_threads_usual(), 2, POOL_THREADS_MAX);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_each_job_once),
		cmocka_unit_test(test_no_threads),
		cmocka_unit_test(test_waiting_helps),
		cmocka_unit_test(test_cancel),
		cmocka_unit_test(test_usual),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
