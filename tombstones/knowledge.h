/*
 * tombstones/knowledge.h — what a replica knows: K, a vector over the folder, with exceptions. DESIGN §3.
 *
 * K (i → n): the effect of every event <= K is integrated here: the record of its path descends from it, or it was deleted
 * and the tombstone since purged. An exception is a path with its own, older vector: it was skipped, failed or waits.
 * "≤ K" always means K of that path. Beyond KNOWLEDGE_EXCEPTIONS_MAX exceptions K does not advance.
 */
#ifndef TOMBSTONES_KNOWLEDGE_H
#define TOMBSTONES_KNOWLEDGE_H

#include "merkle/version.h"

#define KNOWLEDGE_EXCEPTIONS_MAX 1024
#define KNOWLEDGE_BYTES_MAX (1024 * 1024) /* encoded */

struct knowledge_exception {
	char *path; /* owned */
	struct version_vector vector;
};

struct knowledge {
	struct version_vector k;
	struct knowledge_exception *exceptions; /* sorted by path (strcmp), owned */
	size_t n, cap;
};

void knowledge_deinit(struct knowledge *k); /* and zero it */
int knowledge_copy(struct knowledge *ret, const struct knowledge *from);
/* K of that path. Valid until the knowledge changes. O(log exceptions). */
const struct version_vector *knowledge_of(const struct knowledge *k, const char *path);
/* An own event: raises K and the vector of every exception that knows our events before it; one that does not (a forgotten
 * path) must not come to imply them: its record may have been our own, and "seen here, since gone" would delete it at
 * peers. On failure k is to be thrown away. */
int knowledge_event(struct knowledge *k, struct version_dot dot, const struct version_lineage *l);
/* Forget one path: its vector becomes empty (its record was dropped without a decision). -ENOSPC at a limit. */
int knowledge_forget(struct knowledge *k, const char *path);

/*
 * K := K joined with the peer's, for every path but the skipped ones, which keep the vector they had (learn() of the
 * model). `skipped` need not be sorted; doubles are fine. own: the receiver's open incarnation and its counter ({0,0}:
 * none): all own events stay known in every exception, but for forgotten paths. Exceptions that are no longer below K
 * vanish. KNOWLEDGE_FULL: more exceptions, or more bytes, than the maximum would remain: nothing was changed.
 */
enum knowledge_outcome { KNOWLEDGE_FULL = 1 };
int knowledge_learn(struct knowledge *me, const struct knowledge *peer, const char *const *skipped, size_t n_skipped,
	struct version_dot own, const struct version_lineage *l);

bool knowledge_equal(const struct knowledge *a, const struct knowledge *b);
void knowledge_put(struct buf *b, const struct knowledge *k);
/* Enforces order, valid paths and limits; ret must be empty, and is deinit-able either way. */
void knowledge_get(struct cursor *c, struct knowledge *ret);

#endif
