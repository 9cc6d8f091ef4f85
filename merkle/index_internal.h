/*
 * merkle/index_internal.h — what the parts of the index (index, index_rows, index_nodes, tree) share. See index.h.
 *
 * Values on disk: 8 bytes XXH3-64 over key and rest (little-endian), then the rest. The tables `contents` and `inodes`
 * have everything in the key and no value; what they lead to is verified against the row.
 *
 * Rows stand in three tables by class, so that either tree's level 0 is dense and a live row below a path is found
 * without passing over tombstones: live records, tombstones, and rows without a record (local).
 */
#ifndef MERKLE_INDEX_INTERNAL_H
#define MERKLE_INDEX_INTERNAL_H

#include <errno.h>
#include <lmdb.h>
#include <pthread.h>

#include "merkle/tree.h"

enum index_table {
	INDEX_TABLE_META,
	INDEX_TABLE_LIVE,	/* in the order of enum index_class */
	INDEX_TABLE_TOMBSTONES,
	INDEX_TABLE_LOCAL,
	INDEX_TABLE_CHANGES,
	INDEX_TABLE_CONTENTS,
	INDEX_TABLE_INODES,
	INDEX_TABLE_NODES,
	INDEX_TABLE_INTENTS,
	INDEX_TABLE_LINEAGE,
	INDEX_TABLE_TREE,
	INDEX_TABLES,
};

enum index_class { /* of a row: the table it stands in, counted from INDEX_TABLE_LIVE */
	INDEX_CLASS_LIVE,	/* = TREE_LIVE */
	INDEX_CLASS_TOMBSTONE,	/* = TREE_TOMBSTONES */
	INDEX_CLASS_LOCAL,
	INDEX_CLASSES,
};

enum index_private_meta { /* beside enum index_meta, in the same table */
	INDEX_META_TREE_KEY = 128,
	INDEX_META_COUNTS = 129,
};

/* Keys, each as 2 bytes of length (native order) and bytes, one after the other. */
struct index_keys {
	struct buf bytes;
	size_t *at; /* owned: offsets into bytes */
	size_t n, cap;
};

struct index {
	MDB_env *env;
	_Atomic(MDB_txn *) idle; /* owned: a read transaction that is over, for the next one to begin with; NULL: none */
	int dir;	   /* owned: where it is */
	_Atomic bool whole; /* opened, and nothing in it was found to be damaged since */
	int64_t checked_s; /* when all of it was last read through; see index_check_sealed */
	MDB_dbi dbi[INDEX_TABLES];
	struct index_keys loose; /* of live rows that the next transaction that puts many is to pack; the writer's */
	pthread_mutex_t trees_lock; /* of these two */
	uint64_t n_trees;	    /* put since it was opened */
	uint64_t trees[INDEX_NEW_TREES]; /* names of the last ones' roots, round about */
};

struct index_txn {
	struct index *x;
	MDB_txn *txn;
	bool write;
	int failed;	     /* write: the first failure within an operation; nothing can be committed after it */
	uint64_t generation; /* write: counts changes of rows, so that cursors know to find their place again */
	bool keyed;	     /* folder_id and algorithm are set; reading: after index_load_key() */
	uint64_t folder_id;
	enum hash_algorithm algorithm;
	struct index_counts counts; /* write: as of now */
	bool counts_dirty;
	size_t live_pages;	      /* write: as it began; see index_pack.c */
	int64_t live_grown, live_put; /* write: bytes that live rows take more now, and that were put */
	struct index_keys touched[2]; /* write: level-0 keys whose entry changed, by enum tree_which; unsorted */
	struct hash *released;	      /* write: nodes whose count went to 0; looked at again before commit; owned */
	size_t n_released, cap_released;
	uint64_t *trees; /* write: names of the roots that rows took up; owned */
	size_t n_trees, cap_trees;
	struct buf scratch; /* a value being put together */
};

const char *index_table_name(enum index_table table);
int index_table_find(const void *name, size_t n); /* -1: none of ours */

/* What index_set_key() was told, if it was. Of a write transaction it is known from the beginning. */
int index_load_key(struct index_txn *t);

/* LMDB's result as ours: 0, INDEX_ABSENT (not found), or a negative errno. */
int index_error(int rc);

/* --- tables: values with their checksum --- */

/* The value without its checksum, in the map: valid until the transaction's next write. INDEX_ABSENT; -EBADMSG. */
int index_table_get(struct index_txn *t, enum index_table table, const void *key, size_t key_n, struct cursor *ret);
/* scratch_begin, put_… into w->scratch, table_put. */
void index_scratch_begin(struct index_txn *w);
int index_table_put(struct index_txn *w, enum index_table table, const void *key, size_t key_n);
/* INDEX_ABSENT where there is none. */
int index_table_delete(struct index_txn *w, enum index_table table, const void *key, size_t key_n);
/* Check a key and value of an LMDB cursor, and look behind the checksum. */
int index_value_open(const MDB_val *key, const MDB_val *value, struct cursor *ret);
int index_table_cursor(struct index_txn *t, enum index_table table, MDB_cursor **ret);
void index_table_cursor_close(MDB_cursor *c);
DEFINE_CLEANUP(MDB_cursor *, index_table_cursor_close)

/* Remember a failure in the middle of an operation: the transaction can't be committed any more. Returns r. */
int index_fail(struct index_txn *w, int r);

void index_keys_deinit(struct index_keys *k);
int index_keys_add(struct index_keys *k, const void *key, size_t n);
const uint8_t *index_keys_at(const struct index_keys *k, size_t i, size_t *ret_n);
/* Ascending, without doubles. */
void index_keys_sort(struct index_keys *k);
int index_keys_copy(struct index_keys *ret, const struct index_keys *from); /* ret must be empty */

int index_key_compare(const void *a, size_t a_n, const void *b, size_t b_n); /* LMDB's order */

/* --- rows --- */

/* The record's hash, out of the value of a row in one of the first two tables. */
static inline int index_row_hash(struct cursor *value, struct hash *ret)
{
	get_bytes(value, ret->bytes, HASH_BYTES);
	return value->failed ? -EBADMSG : 0;
}

/* Path of the row with this key in a class's table: heap. INDEX_ABSENT. */
int index_row_path(struct index_txn *t, enum index_class class, const struct path_key *key, char **ret);
/* Empty all tables that hold rows or follow from them. */
int index_rows_clear(struct index_txn *w);

/* Put an earlier transaction's rows closer together, and see whether this one's must be. index_pack: before each commit. */
void index_pack_begin(struct index_txn *w);
int index_pack(struct index_txn *w);

/* --- nodes --- */

/* The root must be there: -EINVAL. */
int index_node_acquire(struct index_txn *w, const struct hash *root);
int index_node_release(struct index_txn *w, const struct hash *root);
/* Delete what was released and not taken up again. Before each commit. */
int index_nodes_settle(struct index_txn *w);
/* A row took up this tree: for index_new_trees, once it is committed. */
int index_tree_note(struct index_txn *w, const struct hash *root);
void index_trees_committed(struct index_txn *w);

/* --- tree --- */

/* Bring the blocks up to date with w->touched, and empty it. Before each commit. */
int tree_update(struct index_txn *w);
/* Drop all blocks and make them anew. */
int tree_rebuild(struct index_txn *w);

/* --- for tests and the simulator: commits are quick and not durable --- */
int index_relax(struct index *x);

#endif
