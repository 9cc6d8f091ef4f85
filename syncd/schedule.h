/*
 * syncd/schedule.h — when to connect to a peer next, and when to check roots; how much happened lately. Pure: times in, times out.
 *
 * After a failure the wait doubles from SCHEDULE_RETRY_MIN_MS to SCHEDULE_RETRY_MAX_MS; every wait gets ± 20 % of jitter, so
 * that machines that were switched on together do not meet in step.
 */
#ifndef SYNCD_SCHEDULE_H
#define SYNCD_SCHEDULE_H

#include <stdint.h>

#define SCHEDULE_RETRY_MIN_MS 2000
#define SCHEDULE_RETRY_MAX_MS (5 * 60 * 1000)

struct schedule {
	int64_t interval_ms; /* between root checks */
	unsigned failures;   /* in a row */
};

/* Wait before the next attempt after a failure (failures is raised). `random` is any number. */
int64_t schedule_failed(struct schedule *s, uint64_t random);
/* A session works: failures are forgotten. Wait before the next root check. */
int64_t schedule_worked(struct schedule *s, uint64_t random);

#define SCHEDULE_RECENT_S 60
#define SCHEDULE_SLOTS 12

struct schedule_recent {
	uint64_t slots[SCHEDULE_SLOTS]; /* counts of SCHEDULE_RECENT_S / SCHEDULE_SLOTS seconds each, in a ring */
	int64_t at;			/* number of the newest slot since the clock's beginning */
};

/* n more happened: how many within the last SCHEDULE_RECENT_S seconds, less a slot at most? `monotonic_ns` never goes back. */
uint64_t schedule_recent(struct schedule_recent *r, uint64_t n, int64_t monotonic_ns);

#endif
