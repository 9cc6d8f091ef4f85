/* tests/sim/clock.c — base/clock.h and base/random.h of the current host; see tests/sim/fs.h. */
#include "base/clock.h"

#include <time.h>

#include "base/random.h"
#include "tests/random.h"
#include "tests/sim/fs_internal.h"

int64_t sim_wall_ns(const struct sim_host *h)
{
	return sim.now_ns + h->wall_ns;
}

void sim_advance(int64_t ns)
{
	sim.now_ns += ns;
}

void sim_host_jump(struct sim_host *h, int64_t ns)
{
	h->wall_ns += ns;
}

void sim_host_suspend(struct sim_host *h, int64_t ns)
{
	sim.now_ns += ns;
	h->suspended_ns += ns;
}

int64_t clock_wall_ns(void)
{
	return sim_wall_ns(sim.host);
}

int64_t clock_monotonic_ns(void)
{
	return sim.now_ns - sim.host->suspended_ns;
}

int64_t clock_boot_ns(void)
{
	return sim.now_ns;
}

/* Nobody sleeps for real. */
int nanosleep(const struct timespec *wanted, struct timespec *left)
{
	(void)left;
	sim.now_ns += wanted->tv_sec * CLOCK_NS_PER_S + wanted->tv_nsec;
	return 0;
}

uint64_t sim_random(uint64_t *stream)
{
	return test_random(stream);
}

size_t sim_below(uint64_t *stream, size_t n)
{
	return n ? (size_t)(sim_random(stream) % n) : 0;
}

bool sim_one_in(uint64_t *stream, unsigned n)
{
	return sim_below(stream, n) == 0;
}

void random_bytes(void *ret, size_t n)
{
	uint8_t *p = ret;

	for (; n; n--)
		*p++ = (uint8_t)(sim_random(&sim.host->random) >> 32);
}

uint64_t random_id(void)
{
	uint64_t id;

	do
		id = sim_random(&sim.host->random);
	while (!id);
	return id;
}

uint64_t random_below(uint64_t below)
{
	return below ? sim_random(&sim.host->random) % below : 0;
}
