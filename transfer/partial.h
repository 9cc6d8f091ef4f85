/*
 * transfer/partial.h — what is left in staging of a transfer that was cut: a transfer resumes at the chunk.
 *
 * While a large content is fetched, its object in staging is named after the content's root, and locked (flock) by who fills
 * it. What is there when he is gone, in order or not, waits for the next one who wants that content: it is his object then, and each chunk
 * counts again once it was hashed as it lies there (nothing of it was synced, or is noted anywhere). Who has it complete gives it
 * another name, unlocked. So one at a time fills it, and what is put in place is never such an object. Nobody asks for it for
 * PARTIAL_KEEP_NS: it goes, as it does when the disk is full.
 */
#ifndef TRANSFER_PARTIAL_H
#define TRANSFER_PARTIAL_H

#include "base/clock.h"
#include "merkle/store.h"

#define PARTIAL_BYTES_MIN (1 << 20) /* of the content: shorter ones are fetched again */
#define PARTIAL_KEEP_NS (3 * 24 * 3600 * CLOCK_NS_PER_S)
#define PARTIAL_PREFIX "partial-"
#define PARTIAL_NAME_BYTES 48

enum partial_outcome { PARTIAL_NONE = 1 /* another fills it, or nobody can: use an object of another name */ };

void partial_name(char ret[PARTIAL_NAME_BYTES], const struct hash *root);
/* The content's object, locked, as it was left (*ret_size bytes) or new (0). The lock ends with *ret_fd. */
int partial_open(struct store *s, const char *name, int *ret_fd, uint64_t *ret_size);
/* Is it one to be kept, by its name and kind and, if now_ns is not 0, its age? */
bool partial_stays(struct store *s, const char *name, int64_t now_ns);
/* Remove those that are too old (now_ns 0: all), but for those that are being filled. O(staging). */
int partial_expire(struct store *s, int64_t now_ns, unsigned *ret_removed);

#endif
