/*
 * transfer/settle.h — write into the index what came of an intent on disk: the path's row, conflict copies' and deletions'
 * events. Used by apply (at the end of a batch) and by recovery.
 */
#ifndef TRANSFER_SETTLE_H
#define TRANSFER_SETTLE_H

#include "transfer/place.h"

struct settle {
	struct replica_txn *txn;
	const struct ignore *ignore; /* NULL: nothing is ignored */
	int64_t now_ns;
};

/* The path's row, after DONE or NOT_HELD. ours: as it is in the index, NULL if there is none. nodes: of the new content. */
int settle_row(struct settle *s, const struct intent *i, const struct row *ours, const struct place_outcome *o,
	const struct chunk_tree_node *nodes, size_t n_nodes);
/* The events of all copies that were put under conflict names, and of one that stood there already (content of `ours`).
 * To be called before settle_row, so that no version that lost is unnamed at any time. */
int settle_copies(struct settle *s, const struct intent *i, const struct row *ours, struct place_outcome *o);
int settle_nodes(struct settle *s, const struct chunk_tree_node *nodes, size_t n);
/* After the rows: implied directories above path that nothing needs any more are removed, if empty, and so are their rows.
 * `path` itself is looked at as well. */
int settle_implied(struct settle *s, struct place *p, const char *path);

#endif
