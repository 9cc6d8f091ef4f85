/*
 * merkle/durable.h — which directories are to be synced for a path to be, or not to be, where it is after a power cut.
 *
 * A file system makes a name durable with its directory, and that directory's own name with the one above it. What the index has
 * of a directory was durable when it was recorded: where that is still what stands there, one need not go further up.
 */
#ifndef MERKLE_DURABLE_H
#define MERKLE_DURABLE_H

#include "base/sync.h"
#include "merkle/index.h"

/* Adds the nearest directory above `path` that is there, and those above whose own names may not be durable. Where one can't be
 * opened the set becomes the whole file system. Cost: an open, a stat and a lookup for each. */
void durable_add_above(struct index_txn *t, int root, const char *path, struct sync_set *set);

#endif
