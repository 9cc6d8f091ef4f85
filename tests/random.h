/*
 * tests/random.h — random numbers of tests: splitmix64, so that a seed means the same numbers everywhere.
 */
#ifndef TESTS_RANDOM_H
#define TESTS_RANDOM_H

#include <stdint.h>

#define TEST_RANDOM_STEP UINT64_C(0x9e3779b97f4a7c15) /* of the state, with each number */

static inline uint64_t test_random(uint64_t *state)
{
	uint64_t z = *state += TEST_RANDOM_STEP;

	z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
	return z ^ z >> 31;
}

#endif
