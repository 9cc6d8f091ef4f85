/* base/pace.c — see base/pace.h. */
#include "base/pace.h"

#include <errno.h>
#include <pthread.h>
#include <stddef.h>
#include <stdlib.h>
#include <time.h>

#include "base/bucket.h"
#include "base/clock.h"

#define SLEEP_LEAST_NS (5 * CLOCK_NS_PER_MS)  /* less is owed until it is more */
#define SLEEP_SLICE_NS (20 * CLOCK_NS_PER_MS) /* between looks whether there is a hurry */

struct pace_limits {
	pthread_mutex_t lock; /* guards the buckets */
	struct bucket cpu;    /* nanoseconds of a processor */
	struct bucket read;   /* bytes */
};

/* What of this thread's time is counted: one thread works at one thing at a time. */
static _Thread_local int64_t counted_ns;

int pace_limits_new(struct pace_limits **ret, unsigned cpu_percent, uint64_t read_rate)
{
	struct pace_limits *l;

	*ret = NULL;
	if (!cpu_percent && !read_rate)
		return 0;
	l = calloc(1, sizeof(*l));
	if (!l)
		return -ENOMEM;
	pthread_mutex_init(&l->lock, NULL);
	l->cpu.rate = (uint64_t)cpu_percent * (CLOCK_NS_PER_S / 100);
	l->read.rate = read_rate;
	*ret = l;
	return 0;
}

void pace_limits_free(struct pace_limits *l)
{
	if (!l)
		return;
	pthread_mutex_destroy(&l->lock);
	free(l);
}

static int64_t thread_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
	return (int64_t)t.tv_sec * CLOCK_NS_PER_S + t.tv_nsec;
}

static void sleep_for(struct pace *p, int64_t ns)
{
	int64_t until = clock_monotonic_ns() + ns;

	while (ns > 0 && !atomic_load_explicit(&p->hurry, memory_order_relaxed)) {
		struct timespec slice = {.tv_nsec = ns < SLEEP_SLICE_NS ? ns : SLEEP_SLICE_NS};

		nanosleep(&slice, NULL);
		ns = until - clock_monotonic_ns();
	}
}

static void take(struct pace *p, struct bucket *b, uint64_t n)
{
	int64_t wait;

	if (!b->rate || atomic_load_explicit(&p->hurry, memory_order_relaxed))
		return;
	pthread_mutex_lock(&p->limits->lock);
	wait = bucket_take(b, n, clock_monotonic_ns());
	pthread_mutex_unlock(&p->limits->lock);
	if (wait >= SLEEP_LEAST_NS)
		sleep_for(p, wait);
}

void pace_begin(struct pace *p)
{
	if (p && p->limits)
		counted_ns = thread_ns();
}

void pace_worked(struct pace *p)
{
	int64_t before = counted_ns;

	if (!p || !p->limits)
		return;
	counted_ns = thread_ns();
	take(p, &p->limits->cpu, (uint64_t)(counted_ns - before));
}

void pace_read(struct pace *p, uint64_t bytes)
{
	if (p && p->limits)
		take(p, &p->limits->read, bytes);
}
