/* syncd/schedule.c — see syncd/schedule.h. */
#include "syncd/schedule.h"

#include <limits.h>

#include "base/clock.h"

#define JITTER_PERCENT 20

static int64_t jitter(int64_t ms, uint64_t random)
{
	int64_t span = ms * JITTER_PERCENT / 100;

	return span ? ms - span + (int64_t)(random % (uint64_t)(2 * span + 1)) : ms;
}

int64_t schedule_failed(struct schedule *s, uint64_t random)
{
	int64_t ms = SCHEDULE_RETRY_MIN_MS;

	for (unsigned i = 0; i < s->failures && ms < SCHEDULE_RETRY_MAX_MS; i++)
		ms *= 2;
	if (s->failures < UINT_MAX)
		s->failures++;
	return jitter(ms < SCHEDULE_RETRY_MAX_MS ? ms : SCHEDULE_RETRY_MAX_MS, random);
}

int64_t schedule_worked(struct schedule *s, uint64_t random)
{
	s->failures = 0;
	return jitter(s->interval_ms, random);
}

uint64_t schedule_recent(struct schedule_recent *r, uint64_t n, int64_t monotonic_ns)
{
	int64_t slot = monotonic_ns / (SCHEDULE_RECENT_S / SCHEDULE_SLOTS * CLOCK_NS_PER_S);
	uint64_t sum = 0;

	for (int i = 0; i < SCHEDULE_SLOTS && r->at < slot; i++)
		r->slots[++r->at % SCHEDULE_SLOTS] = 0;
	r->at = slot;
	r->slots[slot % SCHEDULE_SLOTS] += n;
	for (int i = 0; i < SCHEDULE_SLOTS; i++)
		sum += r->slots[i];
	return sum;
}
