/*
 * merkle/diff.h — find where two indexes differ: a step machine without input or output, driven by transfer/session.
 *
 * One side asks (the walker), the other answers from its own index without keeping state:
 *
 *   walker                                          answerer
 *     diff_next() → ASK {tree, level, from, to}  →  diff_answer() → ENTRIES {sep64, hash64} of that level in the range
 *     diff_learn(entries): compares with its own entries of the range and
 *       – queues an ASK one level lower for each sub-range (between separators both have) in which they differ, or
 *       – at level 0 yields the paths that differ: its own (path), and the peer's (by 64-bit path hash)
 *
 * The separator is XXH3 of the path key, the hash XXH3 of the entry's 32 bytes, both seeded by the session's nonces.
 * Ranges are walked from the last path to the first, so that what lies below a directory is yielded before it (but for
 * names that path keys cut, see path.h: there the order within one directory is arbitrary). Several asks may be out at once;
 * level-0 results come in descending order if answers are taken in the order of the asks.
 *
 * Cost: 64 entries of 16 bytes a level for each difference that stands alone; neighbours share. A hostile answerer can make
 * the walker ask for at most what the walker's own index has, and what it sends itself (DIFF_WALK_ENTRIES_MAX in all).
 * (Structural comparison after Demers' anti-entropy and Dynamo's Merkle trees; history-independent shape, see tree.h.)
 */
#ifndef MERKLE_DIFF_H
#define MERKLE_DIFF_H

#include "merkle/tree.h"

#define DIFF_ENTRIES_MAX 4096 /* in one answer; a fuller range is cut, and the answer says where it ends */
#define DIFF_QUEUE_MAX 65536  /* ranges waiting to be asked or answered; beyond it -E2BIG */
#define DIFF_WALK_ENTRIES_MAX (UINT64_C(1) << 28) /* taken in one walk; beyond it -E2BIG */
#define DIFF_RESOLVE_ROWS_MAX (4 * DIFF_ENTRIES_MAX) /* looked at by one diff_resolve */

struct diff_range {
	enum tree_which which;
	uint8_t level; /* of the entries asked for: 3 … 0 */
	struct path_key from;
	struct path_key to;
	bool open; /* no end: `to` is unused */
	bool split; /* of what diff_next gives: diff_split left it over as that; not sent */
};

struct diff_entry {
	uint64_t separator; /* XXH3 of the key, seeded */
	uint64_t hash;	    /* XXH3 of the 32-byte hash, seeded */
};

/* The separator of a path. */
uint64_t diff_separator(const struct path_key *key, uint64_t seed);

/*
 * Answer one ask. *ret: at most DIFF_ENTRIES_MAX entries in ascending order of paths (heap array, caller frees; NULL if there
 * are none). If the range holds more, the answer covers its END only: *ret_cut is true and *ret_from is the key it is
 * complete from. -EBADMSG: not a range. O(entries answered).
 */
int diff_answer(struct index_txn *t, const struct diff_range *range, uint64_t seed, struct diff_entry **ret, size_t *ret_n,
	bool *ret_cut, struct path_key *ret_from);

struct diff;
int diff_new(struct diff **ret, uint64_t seed);
void diff_free(struct diff *d);
/* Rows of each tree on the larger side, if known: the walk begins at a level that fits. Default: the highest. */
void diff_expect(struct diff *d, uint64_t live, uint64_t tombstones);
/* Begin a walk of the live tree, and of the tombstones where asked. Forgets an unfinished walk. */
int diff_start(struct diff *d, bool live, bool tombstones);
/* The next range to ask for: 0, or DIFF_IDLE (nothing to ask now; answers may be due), DIFF_DONE (walk complete). */
enum diff_outcome { DIFF_IDLE = 1, DIFF_DONE };
int diff_next(struct diff *d, struct diff_range *ret);

/* What a level-0 answer showed. */
struct diff_found {
	char **ours;	  /* paths of our rows in the range that the peer lacks or has otherwise; descending order */
	size_t n_ours;
	uint64_t *theirs; /* separators of the peer's rows in the range that we lack or have otherwise; descending */
	size_t n_theirs;
};
void diff_found_deinit(struct diff_found *f);

/*
 * Take the answer to a range that diff_next gave (any order). `cut` and `from` as diff_answer set them (from may be NULL if
 * not cut): the rest of the range is asked for again. Answers at level 0 fill *ret, which must be empty; others leave it
 * empty. -EBADMSG: an answer to nothing asked, too long, or cut without having to be. After a failure: diff_start or
 * diff_free.
 */
int diff_learn(struct diff *d, struct index_txn *t, const struct diff_range *range, const struct diff_entry *entries,
	size_t n, bool cut, const struct path_key *from, struct diff_found *ret);

/*
 * A range of level 0 that diff_next gave was dealt with otherwise, but for these parts of it: ascending, not overlapping; they
 * are asked for as others are, with `split` as it is here. -EBADMSG: it was not given, or is none of level 0.
 */
int diff_split(struct diff *d, const struct diff_range *range, const struct diff_range *parts, size_t n);

/* Find rows in [from, to) of a tree by their separators (for answering WANTs), from the last to the first. Calls emit for each
 * that is found. Looks at the last DIFF_RESOLVE_ROWS_MAX rows of the range at most, so that a question stays cheap: a range
 * is meant that was answered at level 0 (as it was asked, if the answer was cut). */
int diff_resolve(struct index_txn *t, const struct diff_range *range, uint64_t seed, const uint64_t *separators, size_t n,
	index_path_emit *emit, void *data);

#endif
