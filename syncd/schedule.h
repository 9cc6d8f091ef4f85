/*
 * syncd/schedule.h — when to connect to a peer next, and when to check roots. Pure: times in, times out.
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

#endif
