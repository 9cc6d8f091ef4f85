/* base/clock.c — see base/clock.h. */
#include "base/clock.h"

#include <time.h>

static int64_t now(clockid_t id)
{
	struct timespec ts = {0};

	clock_gettime(id, &ts);
	return ts.tv_sec * CLOCK_NS_PER_S + ts.tv_nsec;
}

int64_t clock_wall_ns(void)
{
	return now(CLOCK_REALTIME);
}

int64_t clock_monotonic_ns(void)
{
	return now(CLOCK_MONOTONIC);
}

int64_t clock_boot_ns(void)
{
	return now(CLOCK_BOOTTIME);
}
