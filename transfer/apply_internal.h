/* transfer/apply_internal.h — a batch at work; for transfer/apply*.c only. */
#ifndef TRANSFER_APPLY_INTERNAL_H
#define TRANSFER_APPLY_INTERNAL_H

#include "transfer/place.h"
#include "transfer/settle.h"

/* One path of a batch: an item's, or a directory on the way to one. */
struct change {
	char *path; /* owned */
	struct apply_item *item; /* NULL: not asked for, but needed */
	struct row row;	/* ours */
	bool had_row;
	struct decide_result decision; /* action NONE without an item */
	bool writes; /* `intent` says what */
	bool drop; /* our tombstone goes */
	bool staged_here; /* the staged object was made here: a symlink, a directory */
	struct intent intent;
	struct change *moved_to, *moved_from; /* the other half of a move */
	struct place_outcome outcome; /* result and error: of the change */
};

struct batch {
	const struct apply_options *options;
	struct store *store;
	struct change **v; /* in path order; owned */
	size_t n, cap;
	uint64_t id;
	uint32_t names; /* given in staging so far */
	int64_t now_ns;
	struct place place;
	size_t n_staged; /* files to be synced */
};

/* Where a change stands: undecided ones keep what is above them from going or becoming something else. */
bool change_skipped(const struct change *c);
void change_skip(struct change *c, enum apply_result result, int error);
/* Something will land at the path, or beside it. */
bool change_lands(const struct change *c);
/* A file, symlink or opaque thing will be in place. */
bool change_lands_as_object(const struct change *c);

struct change *batch_find(const struct batch *b, const char *path);
/* Add a path, with our row. -EINVAL: it is there. */
int batch_add(struct batch *b, struct index_txn *t, const char *path, struct apply_item *item, struct change **ret);
/* The first change strictly below, if there is one; the others follow it. */
size_t batch_below(const struct batch *b, const struct change *c);
/* Is an undecided change strictly below? */
bool batch_skipped_below(const struct batch *b, const struct change *c);
/* Has a directory on the way to it turned out to be another's name? */
bool batch_collides_above(const struct batch *b, const struct change *c);

/* Does what is no directory land above it in this batch? */
bool batch_changes_above(const struct batch *b, const struct change *c);

/* In the first transaction: decide, see to the tree's rules, say what is to be done on disk, stage it. Results of single
 * items are in their changes; < 0 is the batch's. */
int plan_batch(struct batch *b, struct replica_txn *t, struct apply_item *items, size_t n);
/* Would the record be on this disk? enum row_place. */
enum row_place plan_place(const struct apply_options *o, const char *path, const struct record *r);

#endif
