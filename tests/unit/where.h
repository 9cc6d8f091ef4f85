/*
 * tests/unit/where.h — where tests put what they make: on a disk, or where fsync costs nothing, if there is such a place.
 * `make unit` gives each program directories of its own, TMPDIR and TEST_MEMORY, and fails if anything is left in them.
 */
#ifndef TESTS_UNIT_WHERE_H
#define TESTS_UNIT_WHERE_H

#include <stdlib.h>
#include <unistd.h>

static inline const char *where_disk(void)
{
	const char *tmp = getenv("TMPDIR");

	return tmp && *tmp ? tmp : "/tmp";
}

static inline const char *where_memory(void)
{
	const char *memory = getenv("TEST_MEMORY");

	if (memory && *memory)
		return memory;
	return access("/dev/shm", W_OK) == 0 ? "/dev/shm" : where_disk();
}

#endif
