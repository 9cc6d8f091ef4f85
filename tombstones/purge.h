/*
 * tombstones/purge.h — drop tombstones that are no longer needed. DESIGN §3 "Purge".
 *
 * Sound once its vv <= K of its path; K outlives it. Policy: older than grace, and the knowledge of every known member
 * (neither retired nor unseen for member_expiry) covers it.
 */
#ifndef TOMBSTONES_PURGE_H
#define TOMBSTONES_PURGE_H

#include "tombstones/replica.h"

struct purge_policy {
	int64_t grace_ns;	  /* tombstone_grace */
	int64_t member_expiry_ns; /* 0: never */
	int64_t now_ns;
};

/* May this tombstone go? Pure. */
bool purge_allowed(const struct record *tombstone, int64_t since_ns, const struct version_vector *k, const struct members *members,
	uint64_t self, const struct purge_policy *policy, const struct version_lineage *l);
/* One pass, in batches; takes the writer lock. */
int purge_run(struct replica *r, const struct purge_policy *policy, uint64_t *ret_purged);

#endif
