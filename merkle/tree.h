/*
 * merkle/tree.h — the comparison tree over an index's records, in path order. DESIGN §4.
 *
 * Two trees: the live records, and beside it the tombstones. Level 0 is the records. Level-k blocks (k = 1, 2, 3) begin
 * at an entry of the level below whose key's XXH3, keyed by the folder's id, has 6 k trailing zero bits; past 128 entries
 * an easier mask (3 bits fewer) suffices, past 1,024 a plain cut; the count starts anew with each block. The shape
 * depends on the set of paths alone, not on content, history or the shape of directories. A block's hash is the folder's
 * hash over "syncd tree" ‖ level ‖ its children's hashes; the root's is that of one block of level 4 over the level-3
 * blocks. A million records are 4 / 244 / 15,625 blocks.
 *
 * Blocks are kept in the index's `tree` table under (tree, level, key of the first entry) and are brought up to date
 * once per transaction, before it commits (and before it reads the tree itself): O(blocks touched × 64).
 */
#ifndef MERKLE_TREE_H
#define MERKLE_TREE_H

#include "merkle/index.h"

#define TREE_LEVELS 3	/* of blocks */
#define TREE_BLOCK_BITS 6
#define TREE_BLOCK_EASY 128
#define TREE_BLOCK_MAX 1024

enum tree_which { /* values are part of the formats */
	TREE_LIVE = 0,
	TREE_TOMBSTONES = 1,
};

int tree_root(struct index_txn *t, enum tree_which which, struct hash *ret); /* O(level-3 blocks); zero if empty */

struct tree_entry {
	struct path_key key; /* of the first record below it */
	struct hash hash;    /* of the block; at level 0 of the record */
};

/*
 * The entries of `level` (0: the records themselves … 3) whose key is in [from, to), in order; to == NULL: no
 * end. An entry belongs where its own first key is. Non-zero from emit stops, passed on. Cost: the entries emitted.
 */
typedef int tree_emit(const struct tree_entry *entry, void *data);
int tree_entries(struct index_txn *t, enum tree_which which, unsigned level, const struct path_key *from,
	const struct path_key *to, tree_emit *emit, void *data);
/* The same from the last to the first. */
int tree_entries_descending(struct index_txn *t, enum tree_which which, unsigned level, const struct path_key *from,
	const struct path_key *to, tree_emit *emit, void *data);

#endif
