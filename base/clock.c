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

bool clock_jumped(struct clock_watch *w, int64_t wall_ns, int64_t boot_ns)
{
	int64_t offset_ns = wall_ns - boot_ns, by_ns = offset_ns - w->offset_ns;
	bool jumped = w->looked && (by_ns > CLOCK_JUMP_NS || by_ns < -CLOCK_JUMP_NS);

	w->looked = true;
	w->offset_ns = offset_ns;
	return jumped;
}
