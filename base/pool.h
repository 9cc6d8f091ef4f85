/*
 * base/pool.h — a few threads that do jobs, and a caller that helps.
 *
 * Jobs are begun in the order in which they were added. Nobody depends on a thread being there or free: who waits for a job that
 * nobody has begun does it himself, so that jobs may add jobs and wait for them, to any depth, without ever waiting in a circle.
 * A pool without threads, or none (NULL), does each job at once, in pool_add: what happens is then the same in each run.
 *
 * Threads are started when there is work for them, so that a pool for a single small job costs nothing.
 */
#ifndef BASE_POOL_H
#define BASE_POOL_H

#include <stdbool.h>

#include "base/pace.h"

#define POOL_THREADS_MAX 16

struct pool;

struct pool_job {
	void (*run)(struct pool_job *job); /* on any thread; its result is for the owner to keep, in what is around the job */
	/* the pool's, from pool_add until it is done: */
	struct pool_job *before, *after; /* in the queue */
	int state;
	bool awaited; /* by a thread that sleeps */
};

/* How many threads make sense on this machine: one for each processor that we may use, and a few that wait for disks. */
unsigned pool_threads_usual(void);

bool pool_at_once(const struct pool *p); /* jobs are done as they are added: it has no threads, or is NULL */
int pool_new(struct pool **ret, unsigned threads); /* at most POOL_THREADS_MAX of them are used */
void pool_set_pace(struct pool *p, struct pace *pace); /* before any job: each is followed by a sleep, if it must; NULL: never */
void pool_free(struct pool *p);			   /* all jobs must be done or cancelled; joins the threads */
/* Queue a job; it stays where it is until pool_wait or pool_cancel has returned. heavy: worth waking a thread for it alone. Never
 * fails: where no thread can be made, those who wait do the work. */
void pool_add(struct pool *p, struct pool_job *job, bool heavy);
bool pool_done(struct pool *p, struct pool_job *job);
void pool_help(struct pool *p, struct pool_job *job); /* run it, if nobody has begun it */
void pool_wait(struct pool *p, struct pool_job *job); /* until it is done; helps */
/* Take the job back if nobody has begun it, else wait for it. true: it was never run. */
bool pool_cancel(struct pool *p, struct pool_job *job);

#endif
