/* base/error.c — see base/error.h. */
#include "base/error.h"

#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define FIRST_BYTES 64 /* of an array, and at least four elements */

void cleanup_free_p(void *p)
{
	free(*(void **)p);
}

void cleanup_close_p(int *fd)
{
	close_keep(*fd);
}

int close_keep(int fd)
{
	if (fd >= 0) {
		int saved = errno;

		close(fd);
		errno = saved;
	}
	return -1;
}

int array_grow(void *array_p, size_t *cap, size_t need, size_t element_bytes)
{
	void *old, *grown;
	size_t n = *cap;

	if (!n)
		n = element_bytes < FIRST_BYTES / 4 ? FIRST_BYTES / element_bytes : 4;
	while (n < need) {
		if (n > SIZE_MAX / 2)
			return -EOVERFLOW;
		n *= 2;
	}
	if (n > SIZE_MAX / element_bytes)
		return -EOVERFLOW;
	memcpy(&old, array_p, sizeof(old));
	grown = realloc(old, n * element_bytes);
	if (!grown)
		return -ENOMEM;
	memcpy(array_p, &grown, sizeof(grown));
	*cap = n;
	return 0;
}

int array_compare_u64(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return (x > y) - (x < y);
}
