/*
 * base/bucket.c — see base/bucket.h.
 *
 * Held is not a number of tokens but a moment, as in the generic cell rate algorithm: each token takes 1/rate seconds to be earned,
 * one after the other. earned_ns behind the present is what was kept, at most a burst of it; ahead of it, what is owed.
 */
#include "base/bucket.h"

#include <stddef.h>

#include "base/clock.h"

uint64_t bucket_rate(const struct bucket *b)
{
	uint64_t rate = 0;

	for (; b; b = b->above)
		if (b->rate && (!rate || b->rate < rate))
			rate = b->rate;
	return rate;
}

uint64_t bucket_portion(const struct bucket *b)
{
	uint64_t portion = bucket_rate(b) / 16;

	if (portion < BUCKET_PORTION_MIN)
		return BUCKET_PORTION_MIN;
	return portion < BUCKET_PORTION_MAX ? portion : BUCKET_PORTION_MAX;
}

/* Rounded up: many small ones must not be more than the rate. */
static int64_t time_for(const struct bucket *b, uint64_t n)
{
	return (int64_t)((n * CLOCK_NS_PER_S + b->rate - 1) / b->rate);
}

int64_t bucket_take(struct bucket *b, uint64_t n, int64_t now_ns)
{
	int64_t wait = 0;

	for (; b; b = b->above) {
		if (!b->rate)
			continue;
		if (b->earned_ns < now_ns - BUCKET_BURST_NS)
			b->earned_ns = now_ns - BUCKET_BURST_NS;
		b->earned_ns += time_for(b, n);
		if (b->earned_ns - now_ns > wait)
			wait = b->earned_ns - now_ns;
	}
	return wait;
}
