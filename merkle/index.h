/*
 * merkle/index.h — the index of one replica: an LMDB environment of rows and what hangs on them.
 *
 *   meta        enum index_meta -> blob
 *   rows        path key -> row (see merkle/record.h), in three tables: live, tombstones, and without a record
 *   changes     local sequence -> path: what changed here, in order; a row stands there once, at its newest
 *   contents    (XXH3 of the content root, sequence): files of equal content
 *   inodes      (inode, sequence)
 *   nodes       node hash -> reference count, payload  (chunk trees, see merkle/chunk_tree.h)
 *   intents     batch id, number -> opaque bytes of transfer/apply
 *   lineage     position -> incarnation
 *   tree        the comparison tree, see merkle/tree.h
 *
 * One process opens it (the store's lock holder), once. Any thread may begin a read transaction, and hand it on; a write
 * transaction is begun, used and ended by one thread; write transactions exclude each other by LMDB's own lock (a thread
 * that begins a second one blocks for ever). A commit is durable (fdatasync) when index_commit returns. No read
 * transaction outlives one message. Never used across fork. Every value carries an XXH3 checksum; a wrong one is -EBADMSG
 * and means that the index must be rebuilt. -ENOSPC when the disk is full; a failed write transaction changes nothing: if
 * an operation failed half-way, so does the commit. Pointers handed out are copies (owned by the caller), never into the
 * map. Callbacks must not write through the transaction that they are called from.
 */
#ifndef MERKLE_INDEX_H
#define MERKLE_INDEX_H

#include "merkle/path.h"
#include "merkle/record.h"

#define INDEX_FORMAT 2 /* 1: no stamp is exact */

struct index;
struct index_txn;

enum index_outcome {
	INDEX_ABSENT = 1, /* no such row, value or entry; also the end of an iteration */
	INDEX_MISSING,	  /* index_open without create: there is no index */
	INDEX_ROOTS_MORE, /* index_roots stopped before the end */
	INDEX_FORGOTTEN,  /* index_new_trees: look at all of them */
};

enum index_meta { /* values are part of the format */
	INDEX_META_FORMAT = 1,	     /* the index's own: not for index_meta_put */
	INDEX_META_IDENTITY = 2,     /* merkle/store: ids, algorithm, what copying can't carry */
	INDEX_META_KNOWLEDGE = 3,    /* tombstones/knowledge */
	INDEX_META_COUNTERS = 4,     /* tombstones/replica: Lamport clock, incarnation */
	INDEX_META_MEMBERS = 5,	     /* tombstones/members */
	INDEX_META_PURGED_SEQ = 6,   /* the index's own: see index_counts */
	INDEX_META_POLICY = 7,	     /* digest of the ignore policy of the last scan */
	INDEX_META_RECOVERED = 8,    /* transfer/recover: staging was gone through once under this index */
	INDEX_META_PLACES = 9,	     /* tombstones/places */
	INDEX_META_MOUNT = 10,	     /* merkle/store: the mount that it was opened in last */
};

/* dir: descriptor of the directory that holds data.mdb; may be closed afterwards. One process at a time: LMDB's lock file is in
 * its memory. With create, an empty index is made where none is; without, INDEX_MISSING. -EPROTONOSUPPORT: another format's
 * version; -EBADMSG: damaged, or not LMDB's; -EPERM: data.mdb is not a plain file of its own (symlink, second link). Needs /proc. */
int index_open(struct index **ret, int dir, bool create);
void index_close(struct index *x);
/* Something in it was damaged: the next opening reads all of it (see merkle/index_check.h). Any thread. */
void index_distrust(struct index *x);

int index_begin_read(struct index *x, struct index_txn **ret);
int index_begin_write(struct index *x, struct index_txn **ret); /* waits for another writer */
int index_commit(struct index_txn **txn);			/* consumes it, also on failure */
void index_abort(struct index_txn *txn);			/* NULL is fine */

/* The folder's id keys the comparison tree; the algorithm hashes it. To be set before the first row is put (else
 * -EINVAL). Another id makes the tree anew: O(rows). Another algorithm drops all rows and nodes, as their hashes mean
 * nothing under it (counted as purged: every feed cursor becomes void). */
int index_set_key(struct index_txn *w, uint64_t folder_id, enum hash_algorithm algorithm);

/* --- meta --- */
int index_meta_get(struct index_txn *t, enum index_meta key, struct buf *ret); /* appended to ret; INDEX_ABSENT */
int index_meta_put(struct index_txn *w, enum index_meta key, const void *p, size_t n);

/* --- rows --- */
int index_get(struct index_txn *t, const char *path, struct row *ret); /* INDEX_ABSENT; ret must be empty */
/* Insert or replace; gives the row a new local sequence (written to row->seq) if it has a record, and keeps all other
 * tables and the comparison tree in step. A file's chunk-tree nodes are referenced by content: see index_node_put. */
int index_put(struct index_txn *w, const char *path, struct row *row);
/* Rewrite only the local half (place, stamp, recorded_ns): no new sequence; -EINVAL if the record is another. The rest of
 * the row stays as it is in the index. INDEX_ABSENT. */
int index_restamp(struct index_txn *w, const char *path, const struct row *row);
int index_drop(struct index_txn *w, const char *path); /* raises INDEX_META_PURGED_SEQ; INDEX_ABSENT */

struct index_counts {
	uint64_t live;	     /* rows with a live record */
	uint64_t tombstones; /* rows with a deleted record */
	uint64_t bytes;	     /* content bytes of live files */
	uint64_t head_seq;   /* highest local sequence given */
	uint64_t purged_seq; /* highest sequence purged or dropped */
};
int index_counts(struct index_txn *t, struct index_counts *ret); /* O(1) */

/* Iterate rows in path order. A cursor belongs to its transaction and is closed before it ends. Rows may be put and dropped
 * meanwhile: the next row is the one after the path where the cursor stands, as of now. */
struct index_cursor;
int index_cursor_open(struct index_txn *t, struct index_cursor **ret);
void index_cursor_close(struct index_cursor *c);
/* First row at or after the key of `path` ("" = the first of all); last row before it. INDEX_ABSENT at the end. */
int index_cursor_seek(struct index_cursor *c, const char *path);
int index_cursor_seek_key(struct index_cursor *c, const struct path_key *key);
int index_cursor_next(struct index_cursor *c);
/* From a row to the first one at or after a key that is greater than its own: cheap where that is the next one. */
int index_cursor_forward(struct index_cursor *c, const struct path_key *key);
/* The row under the cursor. ret_path: heap. Either may be NULL. INDEX_ABSENT: at the end, or dropped meanwhile. */
int index_cursor_get(struct index_cursor *c, char **ret_path, struct row *ret_row);
/* The key under the cursor: the cursor's, until it moves. Only where the last move found something. */
const struct path_key *index_cursor_key(const struct index_cursor *c);
/* As index_cursor_get, without versions. */
int index_cursor_brief(struct index_cursor *c, struct row_brief *ret);
/* Cheap view for the tree: key, hash of the record, live; false for rows without a record. */
bool index_cursor_peek(struct index_cursor *c, struct path_key *ret_key, struct hash *ret_hash, bool *ret_live);

/* Is any live record strictly below path ("": at all)? O(log n), plus, where names of more than PATH_KEY_PREFIX bytes are
 * cut, the rows that share the cut. 1 yes, 0 no, < 0. */
int index_any_live_below(struct index_txn *t, const char *path);
/* Is anything on the way to the path on disk, by its row, and no directory? O(depth of the path). 1 yes, 0 no, < 0. */
int index_any_leaf_above(struct index_txn *t, const char *path);
/* Live records at and below a top-level name. O(them). -EINVAL: a path whose key may be cut. */
int index_count_live(struct index_txn *t, const char *top, uint64_t *ret);

/* Paths whose rows changed after sequence `after`, in order; stops when emit returns non-zero (passed on). */
typedef int index_change_emit(uint64_t seq, const char *path, void *data);
int index_changes(struct index_txn *t, uint64_t after, index_change_emit *emit, void *data);

/* Paths of live rows that are on disk with this content / of this inode. Non-zero from emit stops (passed on). */
typedef int index_path_emit(const char *path, void *data);
int index_by_content(struct index_txn *t, const struct content *content, index_path_emit *emit, void *data);
int index_by_inode(struct index_txn *t, uint64_t ino, index_path_emit *emit, void *data);

/* --- chunk-tree nodes: counted references. A row with content.height > 0 and place ROW_ON_DISK holds one reference on
 * its root; a node holds one on each child node. index_put, index_restamp and index_drop add and release the row's; the
 * nodes must have been put before, children before parents, in the same transaction (else -EINVAL). A node whose last
 * reference is released goes when the transaction commits, unless it was taken up again. What was put and never referred
 * to stays until index_node_sweep. Putting a node that is there is nothing. -EBADMSG: payload and hash disagree. --- */
int index_node_put(struct index_txn *w, const struct hash *hash, uint8_t level, const void *payload, size_t n);
int index_node_get(struct index_txn *t, const struct hash *hash, uint8_t *ret_level, struct buf *ret); /* INDEX_ABSENT */
int index_node_sweep(struct index_txn *w); /* O(nodes): remove what nothing refers to */

/* --- the trees of files that are on disk, by their roots; a root's name is its XXH3 --- */
#define INDEX_NEW_TREES 1024 /* are remembered, in memory */

uint64_t index_root_name(const struct hash *root);
/* Look at up to n nodes after the hash *after, which moves on (zeros: from the beginning), and emit the roots among them. Non-zero
 * from emit stops (passed on). INDEX_ROOTS_MORE: there are more nodes. */
typedef int index_root_emit(const struct hash *root, uint8_t level, void *data);
int index_roots(struct index_txn *t, struct hash *after, size_t n, index_root_emit *emit, void *data);
/* As index_by_content, of a root's name: there may be others of that name. */
int index_by_root(struct index_txn *t, uint64_t name, index_path_emit *emit, void *data);
/* The names of trees that rows took up by commits since the one of number *at, which moves on (0: since the index was opened).
 * INDEX_FORGOTTEN: there were more than are remembered; *at is the number of the next one then. Any thread. */
int index_new_trees(struct index *x, uint64_t *at, uint64_t ret[INDEX_NEW_TREES], size_t *ret_n);

/* --- intents --- */
int index_intent_put(struct index_txn *w, uint64_t batch, uint32_t number, const void *p, size_t n);
int index_intent_drop_batch(struct index_txn *w, uint64_t batch);
typedef int index_intent_emit(uint64_t batch, uint32_t number, const void *p, size_t n, void *data);
int index_intents(struct index_txn *t, index_intent_emit *emit, void *data);

/* --- lineage --- */
int index_lineage_put(struct index_txn *w, const struct version_incarnation *i); /* appends */
int index_lineage_load(struct index_txn *t, struct version_lineage *ret);

#endif
