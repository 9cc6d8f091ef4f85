/*
 * merkle/index_nodes.c — chunk-tree nodes with counted references.
 *
 *   nodes   hash -> references (u64), level (u8), payload
 *
 * Invariants
 *   – A node's count is the number of rows that hold it as their root, plus its occurrences in the
 *     nodes that are there.
 *   – A node whose count fell to 0 is noted, and looked at again before the commit: a file renamed
 *     in one transaction may release a tree before it takes it up again.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "merkle/index_internal.h"

struct node {
	uint64_t references;
	uint8_t level;
	const uint8_t *payload; /* in the map: until the next write */
	size_t n;		/* bytes of payload */
};

static int node_get(struct index_txn *t, const struct hash *hash, struct node *ret)
{
	struct cursor c;
	int r = index_table_get(t, INDEX_TABLE_NODES, hash->bytes, HASH_BYTES, &c);

	if (r)
		return r;
	ret->references = get_u64(&c);
	ret->level = get_u8(&c);
	if (c.failed || !ret->level)
		return -EBADMSG;
	ret->payload = c.p;
	ret->n = cursor_left(&c);
	return 0;
}

static int node_store(struct index_txn *w, const struct hash *hash, const struct node *node)
{
	index_scratch_begin(w);
	put_u64(&w->scratch, node->references);
	put_u8(&w->scratch, node->level);
	put_bytes(&w->scratch, node->payload, node->n);
	return index_table_put(w, INDEX_TABLE_NODES, hash->bytes, HASH_BYTES);
}

static int note_released(struct index_txn *w, const struct hash *hash)
{
	int r = array_reserve(
		&w->released, &w->cap_released, w->n_released + 1, sizeof(*w->released));

	if (r)
		return index_fail(w, r);
	w->released[w->n_released++] = *hash;
	return 0;
}

int index_node_acquire(struct index_txn *w, const struct hash *root)
{
	struct node node;
	int r = node_get(w, root, &node);

	if (r)
		return r == INDEX_ABSENT ? -EINVAL : r;
	if (node.references == UINT64_MAX)
		return -EBADMSG;
	node.references++;
	return node_store(w, root, &node);
}

int index_node_release(struct index_txn *w, const struct hash *root)
{
	struct node node;
	int r = node_get(w, root, &node);

	if (r || !node.references)
		return index_fail(w, r < 0 ? r : -EBADMSG);
	node.references--;
	r = node_store(w, root, &node);
	if (r || node.references)
		return r;
	return note_released(w, root);
}

/* Call f for each child that is a node: those of level 1 are chunks. */
static int for_children(struct index_txn *w, const struct hash *hash, const struct node *node,
	int (*f)(struct index_txn *, const struct hash *))
{
	struct chunk_tree_entry *entries cleanup_free = NULL;
	size_t n;
	int r = chunk_tree_decode(
		w->algorithm, hash, node->level, node->payload, node->n, &entries, &n);

	if (r || node->level == 1)
		return r;
	for (size_t i = 0; i < n; i++) {
		r = f(w, &entries[i].hash);
		if (r)
			return r;
	}
	return 0;
}

static int child_is_there(struct index_txn *w, const struct hash *hash)
{
	struct node node;
	int r = node_get(w, hash, &node);

	return r == INDEX_ABSENT ? -EINVAL : r;
}

int index_node_put(
	struct index_txn *w, const struct hash *hash, uint8_t level, const void *payload, size_t n)
{
	struct node node, known;
	int r;

	if (w->failed)
		return w->failed;
	if (!w->keyed || !level)
		return -EINVAL;
	r = node_get(w, hash, &known);
	if (r != INDEX_ABSENT)
		return r;
	node = (struct node){.level = level, .payload = payload, .n = n};
	r = for_children(w, hash, &node, child_is_there);
	if (!r)
		r = node_store(w, hash, &node);
	if (!r && for_children(w, hash, &node, index_node_acquire))
		r = index_fail(w, -EIO);
	return r;
}

int index_node_get(
	struct index_txn *t, const struct hash *hash, uint8_t *ret_level, struct buf *ret)
{
	struct node node;
	int r = node_get(t, hash, &node);

	if (r)
		return r;
	put_bytes(ret, node.payload, node.n);
	if (buf_error(ret))
		return buf_error(ret);
	*ret_level = node.level;
	return 0;
}

/* Delete the node if nothing refers to it; its children are released, and so looked at too. */
static int node_settle(struct index_txn *w, const struct hash *hash)
{
	uint8_t *copy cleanup_free = NULL;
	struct node node;
	int r = node_get(w, hash, &node);

	if (r == INDEX_ABSENT || (!r && node.references))
		return 0; /* gone already, or taken up again */
	if (r)
		return r;
	copy = malloc(node.n + 1);
	if (!copy)
		return -ENOMEM;
	memcpy(copy, node.payload, node.n);
	node.payload = copy;
	r = index_table_delete(w, INDEX_TABLE_NODES, hash->bytes, HASH_BYTES);
	if (!r)
		r = for_children(w, hash, &node, index_node_release);
	return r;
}

int index_nodes_settle(struct index_txn *w)
{
	while (w->n_released) {
		struct hash hash = w->released[--w->n_released];
		int r = node_settle(w, &hash);

		if (r)
			return r;
	}
	return 0;
}

int index_node_sweep(struct index_txn *w)
{
	MDB_cursor *c cleanup(index_table_cursor_close_p) = NULL;
	struct cursor value;
	struct hash hash;
	MDB_val k, v;
	int r = index_table_cursor(w, INDEX_TABLE_NODES, &c);

	if (r)
		return r;
	while (!(r = index_error(mdb_cursor_get(c, &k, &v, MDB_NEXT)))) {
		r = k.mv_size == HASH_BYTES ? index_value_open(&k, &v, &value) : -EBADMSG;
		if (r)
			return r;
		memcpy(hash.bytes, k.mv_data, HASH_BYTES);
		if (!get_u64(&value))
			r = note_released(w, &hash);
		if (r)
			return r;
	}
	return r == INDEX_ABSENT ? 0 : r;
}

/* --- whole trees --- */

static int stop_there(const char *path, void *data)
{
	(void)path;
	(void)data;
	return INDEX_ROOTS_MORE;
}

int index_roots(struct index_txn *t, struct hash *after, size_t n, index_root_emit *emit, void *data)
{
	MDB_cursor *c cleanup(index_table_cursor_close_p) = NULL;
	MDB_val k = {HASH_BYTES, after->bytes}, v;
	int r = index_table_cursor(t, INDEX_TABLE_NODES, &c);

	if (r)
		return r;
	r = index_error(mdb_cursor_get(c, &k, &v, MDB_SET_RANGE));
	if (!r && k.mv_size == HASH_BYTES && memcmp(k.mv_data, after->bytes, HASH_BYTES) == 0)
		r = index_error(mdb_cursor_get(c, &k, &v, MDB_NEXT));
	for (; !r && n; n--, r = index_error(mdb_cursor_get(c, &k, &v, MDB_NEXT))) {
		struct cursor value;

		r = k.mv_size == HASH_BYTES ? index_value_open(&k, &v, &value) : -EBADMSG;
		if (r)
			return r;
		memcpy(after->bytes, k.mv_data, HASH_BYTES);
		(void)get_u64(&value);
		r = index_by_root(t, index_root_name(after), stop_there, NULL);
		if (r == INDEX_ROOTS_MORE)
			r = emit(after, get_u8(&value), data);
		if (r)
			return r;
	}
	return r == INDEX_ABSENT ? 0 : r ? r : INDEX_ROOTS_MORE;
}

int index_tree_note(struct index_txn *w, const struct hash *root)
{
	int r = array_reserve(&w->trees, &w->cap_trees, w->n_trees + 1, sizeof(*w->trees));

	if (r)
		return index_fail(w, r);
	w->trees[w->n_trees++] = index_root_name(root);
	return 0;
}

void index_trees_committed(struct index_txn *w)
{
	struct index *x = w->x;

	if (!w->n_trees)
		return;
	pthread_mutex_lock(&x->trees_lock);
	for (size_t i = 0; i < w->n_trees; i++)
		x->trees[x->n_trees++ % INDEX_NEW_TREES] = w->trees[i];
	pthread_mutex_unlock(&x->trees_lock);
}

int index_new_trees(struct index *x, uint64_t *at, uint64_t ret[INDEX_NEW_TREES], size_t *ret_n)
{
	int r = 0;

	pthread_mutex_lock(&x->trees_lock);
	if (x->n_trees - *at > INDEX_NEW_TREES) {
		*at = x->n_trees;
		r = INDEX_FORGOTTEN;
	}
	for (*ret_n = 0; *at < x->n_trees; ++*at)
		ret[(*ret_n)++] = x->trees[*at % INDEX_NEW_TREES];
	pthread_mutex_unlock(&x->trees_lock);
	return r;
}
