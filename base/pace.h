/*
 * base/pace.h — work that has no more than a share of the processors and of the disk: who did some sleeps until it is earned.
 *
 * The limits are shared by all work that has them; each work of any number of threads has a struct pace. Counted is the time that
 * the kernel has a thread run, from pace_begin or its birth on, and what is about to be read. Sleeps are long enough to be worth
 * it, so that pace_worked may be called often; it costs a call of the kernel. All that takes a pace takes NULL: no limit.
 */
#ifndef BASE_PACE_H
#define BASE_PACE_H

#include <stdatomic.h>
#include <stdint.h>

struct pace_limits;

struct pace {
	struct pace_limits *limits; /* or NULL: no limit */
	atomic_bool hurry;	    /* by anybody: nobody sleeps, and nothing is counted, while it is set */
};

/* cpu_percent: of one processor; read_rate: bytes a second. 0: no limit; *ret is NULL if there is none. */
int pace_limits_new(struct pace_limits **ret, unsigned cpu_percent, uint64_t read_rate);
void pace_limits_free(struct pace_limits *l);

void pace_begin(struct pace *p);			/* this thread takes part, and did other things before */
void pace_worked(struct pace *p);			/* this thread has a moment to sleep, if it must */
void pace_read(struct pace *p, uint64_t bytes);		/* before so many are read */

#endif
