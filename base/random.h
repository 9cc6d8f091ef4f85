/* base/random.h — the only source of randomness; the simulator links its own. */
#ifndef BASE_RANDOM_H
#define BASE_RANDOM_H

#include <stddef.h>
#include <stdint.h>

/* Fill with bytes from the kernel. Cannot fail: aborts if the kernel gives none. */
void random_bytes(void *ret, size_t n);
/* A random id that is never 0. */
uint64_t random_id(void);
/* Uniform in [0, below); 0 if below is 0. */
uint64_t random_below(uint64_t below);

#endif
