/* base/random.c — see base/random.h. */
#include "base/random.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/random.h>

void random_bytes(void *ret, size_t n)
{
	uint8_t *p = ret;

	while (n) {
		ssize_t got = getrandom(p, n, 0);

		if (got < 0 && errno != EINTR)
			abort();
		if (got > 0) {
			p += got;
			n -= (size_t)got;
		}
	}
}

uint64_t random_id(void)
{
	uint64_t id = 0;

	while (!id)
		random_bytes(&id, sizeof(id));
	return id;
}

uint64_t random_below(uint64_t below)
{
	uint64_t v, limit;

	if (!below)
		return 0;
	limit = UINT64_MAX - UINT64_MAX % below;
	do
		random_bytes(&v, sizeof(v));
	while (v >= limit);
	return v % below;
}
