/*
 * base/bucket.h — so many a second and no more: a token bucket. Pure: the time is passed in. Not locked.
 *
 * What is wanted is taken at once, and used once it is earned: who takes waits as long as bucket_take says. Takers thus have their
 * turns in the order in which they took, and each who takes small amounts has his share, whoever else takes much. What nobody took
 * is kept for BUCKET_BURST_NS at most: in any t seconds no more is earned than rate × (t + 0.1), which is 1 % above in 10 s.
 *
 * A bucket may stand below another one, of which what is taken here is taken, too: a session's below its daemon's.
 */
#ifndef BASE_BUCKET_H
#define BASE_BUCKET_H

#include <stdint.h>

#define BUCKET_BURST_NS INT64_C(100000000)
#define BUCKET_PORTION_MIN 512
#define BUCKET_PORTION_MAX 16384

/* Zero-initialised is without a limit. */
struct bucket {
	struct bucket *above; /* or NULL; lives as long as this one */
	uint64_t rate;	      /* a second; 0: no limit of its own */
	int64_t earned_ns;    /* when all that was taken is earned */
};

/* The lowest rate of this one and those above; 0: no limit. NULL is without a limit. */
uint64_t bucket_rate(const struct bucket *b);
/* What those who share a bucket of bytes take at a time: small, so that turns come soon, also for who has a lower limit of his own. */
uint64_t bucket_portion(const struct bucket *b);
/* Take n, of this one and those above. How long to wait until they are earned, in ns; 0: they are. n × 10^9 fits 64 bits. */
int64_t bucket_take(struct bucket *b, uint64_t n, int64_t now_ns);

#endif
