/*
 * base/pool.c — see base/pool.h.
 *
 * Invariants:
 *  - A job is in the queue exactly while it is QUEUED, and is run by whoever took it out, once.
 *  - Who sleeps for a job sleeps for one that somebody runs. That one waits for jobs only that were added after it was begun, so
 *    that there is always somebody who runs.
 */
#include "base/pool.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>

#include "base/error.h"

#define LIGHT_JOBS 4 /* so many are worth waking a thread */
#define WAITING_THREADS 2

enum { QUEUED, RUNNING, DONE };

struct pool {
	pthread_mutex_t lock; /* guards all that follows, and the jobs' state */
	pthread_cond_t work;  /* something was queued, or it ends */
	pthread_cond_t done;  /* a job that somebody sleeps for */
	struct pool_job *first, *last;
	unsigned queued;
	unsigned idle; /* threads that sleep */
	unsigned threads;
	bool refused; /* another thread */
	bool ending;
	pthread_t thread[POOL_THREADS_MAX];
	unsigned threads_max; /* never changes */
	struct pace *pace;    /* nor does this */
};

bool pool_at_once(const struct pool *p)
{
	return !p || !p->threads_max;
}

unsigned pool_threads_usual(void)
{
	cpu_set_t set;
	unsigned n = WAITING_THREADS;

	n += sched_getaffinity(0, sizeof(set), &set) == 0 ? (unsigned)CPU_COUNT(&set) : 1;
	return n < POOL_THREADS_MAX ? n : POOL_THREADS_MAX;
}

int pool_new(struct pool **ret, unsigned threads)
{
	struct pool *p = calloc(1, sizeof(*p));

	if (!p)
		return -ENOMEM;
	pthread_mutex_init(&p->lock, NULL);
	pthread_cond_init(&p->work, NULL);
	pthread_cond_init(&p->done, NULL);
	p->threads_max = threads < POOL_THREADS_MAX ? threads : POOL_THREADS_MAX;
	*ret = p;
	return 0;
}

void pool_set_pace(struct pool *p, struct pace *pace)
{
	p->pace = pace;
}

void pool_free(struct pool *p)
{
	if (!p)
		return;
	pthread_mutex_lock(&p->lock);
	assert(!p->first);
	p->ending = true;
	pthread_cond_broadcast(&p->work);
	pthread_mutex_unlock(&p->lock);
	for (unsigned i = 0; i < p->threads; i++)
		pthread_join(p->thread[i], NULL);
	pthread_cond_destroy(&p->done);
	pthread_cond_destroy(&p->work);
	pthread_mutex_destroy(&p->lock);
	free(p);
}

/* --- all of this with the lock held --- */

static void take_out(struct pool *p, struct pool_job *job)
{
	*(job->before ? &job->before->after : &p->first) = job->after;
	*(job->after ? &job->after->before : &p->last) = job->before;
	p->queued--;
}

static void run(struct pool *p, struct pool_job *job)
{
	take_out(p, job);
	job->state = RUNNING;
	pthread_mutex_unlock(&p->lock);
	job->run(job);
	pace_worked(p->pace);
	pthread_mutex_lock(&p->lock);
	job->state = DONE;
	if (job->awaited)
		pthread_cond_broadcast(&p->done);
}

static void sleep_until_done(struct pool *p, struct pool_job *job)
{
	while (job->state != DONE) {
		job->awaited = true;
		pthread_cond_wait(&p->done, &p->lock);
	}
}

static void *work(void *data)
{
	struct pool *p = data;

	pthread_mutex_lock(&p->lock);
	while (!p->ending) {
		if (p->first) {
			run(p, p->first);
			continue;
		}
		p->idle++;
		pthread_cond_wait(&p->work, &p->lock);
		p->idle--;
	}
	pthread_mutex_unlock(&p->lock);
	return NULL;
}

/* Signals are for the threads that were there before. */
static void start_thread(struct pool *p)
{
	sigset_t all, before;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	if (pthread_create(&p->thread[p->threads], NULL, work, p) == 0)
		p->threads++;
	else
		p->refused = true;
	pthread_sigmask(SIG_SETMASK, &before, NULL);
}

static void wake_somebody(struct pool *p)
{
	if (p->idle)
		pthread_cond_signal(&p->work);
	else if (p->threads < p->threads_max && !p->refused)
		start_thread(p);
}

/* --- jobs --- */

void pool_add(struct pool *p, struct pool_job *job, bool heavy)
{
	if (pool_at_once(p)) {
		job->run(job);
		return;
	}
	pthread_mutex_lock(&p->lock);
	job->state = QUEUED;
	job->awaited = false;
	job->before = p->last;
	job->after = NULL;
	*(p->last ? &p->last->after : &p->first) = job;
	p->last = job;
	p->queued++;
	if (heavy || p->queued >= LIGHT_JOBS)
		wake_somebody(p);
	pthread_mutex_unlock(&p->lock);
}

bool pool_done(struct pool *p, struct pool_job *job)
{
	bool done;

	if (pool_at_once(p))
		return true;
	pthread_mutex_lock(&p->lock);
	done = job->state == DONE;
	pthread_mutex_unlock(&p->lock);
	return done;
}

void pool_help(struct pool *p, struct pool_job *job)
{
	if (pool_at_once(p))
		return;
	pthread_mutex_lock(&p->lock);
	if (job->state == QUEUED)
		run(p, job);
	pthread_mutex_unlock(&p->lock);
}

void pool_wait(struct pool *p, struct pool_job *job)
{
	if (pool_at_once(p))
		return;
	pthread_mutex_lock(&p->lock);
	if (job->state == QUEUED)
		run(p, job);
	else
		sleep_until_done(p, job);
	pthread_mutex_unlock(&p->lock);
}

bool pool_cancel(struct pool *p, struct pool_job *job)
{
	bool taken;

	if (pool_at_once(p))
		return false;
	pthread_mutex_lock(&p->lock);
	taken = job->state == QUEUED;
	if (taken)
		take_out(p, job);
	else
		sleep_until_done(p, job);
	pthread_mutex_unlock(&p->lock);
	return taken;
}
