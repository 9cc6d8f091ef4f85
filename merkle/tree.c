/*
 * merkle/tree.c — the comparison tree, kept up to date block by block.
 *
 *   tree   tree, level, key of the first entry -> hash of the block
 *
 *   level 2   |A                        |K           …   of level-1 blocks
 *   level 1   |A      |D    |F          |K    |M     …   of records
 *   level 0    A B C   D E   F G H I J   K L   M N   …   the records
 *
 * Where a block begins depends on the keys of the entries from the previous beginning on, and on
 * nothing else: a block that begins at the same key as before, and before nothing that was touched,
 * is the block that was. So an update runs from the last beginning before a touched key until it
 * meets a beginning that was one before, with nothing touched left ahead of it: what follows is
 * unchanged, up to the next touched key. What a run added, removed or gave another hash is what was
 * touched one level up. The result is the tree that one run over all entries would make, whatever
 * the history (tested against exactly that).
 *
 * With keys made to have no boundary (the folder's id is known to its members), blocks are cut at
 * 1,024 entries, and an insertion moves all cuts behind it: O(rows) for a commit, never a wrong
 * tree.
 */
#include "merkle/tree.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "merkle/index_internal.h"

#define BLOCK_KEY_HEAD 2 /* tree, level */
#define BLOCK_KEY_BYTES_MAX (BLOCK_KEY_HEAD + PATH_KEY_BYTES_MAX)
#define HASH_LABEL "syncd tree"
#define HASH_LABEL_BYTES (sizeof(HASH_LABEL) - 1)

static_assert(
	INDEX_TABLE_LIVE + TREE_LIVE == INDEX_TABLE_LIVE, "a tree's level 0 is a table of rows");
static_assert(INDEX_TABLE_LIVE + TREE_TOMBSTONES == INDEX_TABLE_TOMBSTONES, "the same");

/* --- entries of one level, in either direction --- */

struct level {
	MDB_cursor *cursor; /* owned */
	uint8_t head[BLOCK_KEY_HEAD];
	size_t head_n; /* 0 at level 0, whose table has nothing else */
	/* the entry where it stands; key NULL: none. In the map: valid until the next write. */
	const uint8_t *key;
	size_t key_n;
	struct hash hash;
};

static void level_deinit(struct level *l)
{
	index_table_cursor_close(l->cursor);
}

static int level_open(struct level *ret, struct index_txn *t, enum tree_which which, unsigned level)
{
	enum index_table rows = (enum index_table)(INDEX_TABLE_LIVE + (int)which);

	*ret = (struct level){
		.head = {(uint8_t)which, (uint8_t)level}, .head_n = level ? BLOCK_KEY_HEAD : 0};
	return index_table_cursor(t, level ? INDEX_TABLE_TREE : rows, &ret->cursor);
}

static int level_take(struct level *l, int r, const MDB_val *k, const MDB_val *v)
{
	struct cursor value;

	l->key = NULL;
	l->key_n = 0;
	if (r == INDEX_ABSENT)
		return 0;
	if (r)
		return r;
	if (l->head_n && (k->mv_size < l->head_n || memcmp(k->mv_data, l->head, l->head_n)))
		return 0; /* another level's */
	r = index_value_open(k, v, &value);
	if (!r)
		r = index_row_hash(&value, &l->hash);
	if (r)
		return r;
	if (k->mv_size <= l->head_n || k->mv_size - l->head_n > PATH_KEY_BYTES_MAX)
		return -EBADMSG;
	l->key = (const uint8_t *)k->mv_data + l->head_n;
	l->key_n = k->mv_size - l->head_n;
	return 0;
}

static int level_move(struct level *l, MDB_cursor_op op)
{
	MDB_val k, v;
	int r = index_error(mdb_cursor_get(l->cursor, &k, &v, op));

	return level_take(l, r, &k, &v);
}

/* To the first entry at or after the key. */
static int level_seek(struct level *l, const void *key, size_t n)
{
	uint8_t whole[BLOCK_KEY_BYTES_MAX];
	MDB_val k = {l->head_n + n, whole}, v;
	int r;

	memcpy(whole, l->head, l->head_n);
	if (n)
		memcpy(whole + l->head_n, key, n);
	r = index_error(mdb_cursor_get(l->cursor, &k, &v, k.mv_size ? MDB_SET_RANGE : MDB_FIRST));
	return level_take(l, r, &k, &v);
}

/* To the last entry before the key; key NULL: to the last of all. */
static int level_seek_before(struct level *l, const void *key, size_t n)
{
	uint8_t whole[BLOCK_KEY_BYTES_MAX];
	MDB_val k = {l->head_n, whole}, v;
	int r;

	memcpy(whole, l->head, l->head_n);
	if (key && n)
		memcpy(whole + l->head_n, key, n);
	if (key)
		k.mv_size += n;
	else if (l->head_n)
		whole[l->head_n - 1]++; /* the first key of the next level */
	if (!key && !l->head_n)
		return level_move(l, MDB_LAST);
	r = index_error(mdb_cursor_get(l->cursor, &k, &v, k.mv_size ? MDB_SET_RANGE : MDB_FIRST));
	if (r < 0)
		return r;
	return level_move(l, r == INDEX_ABSENT ? MDB_LAST : MDB_PREV);
}

static int level_compare(const struct level *l, const void *key, size_t n)
{
	return index_key_compare(l->key, l->key_n, key, n);
}

/* --- blocks --- */

/* Does a block of `level` begin at this key, when the one before it has `count` entries? */
static bool begins(
	const struct index_txn *t, unsigned level, const uint8_t *key, size_t n, size_t count)
{
	uint64_t h = hash_fast(key, n, t->folder_id);
	unsigned zeros = h ? (unsigned)__builtin_ctzll(h) : 64;

	return zeros >= TREE_BLOCK_BITS * level || count >= TREE_BLOCK_MAX ||
	       (count >= TREE_BLOCK_EASY && zeros >= TREE_BLOCK_BITS * level - 3);
}

/* Blocks as (key, hash), in order. */
struct blocks {
	struct index_keys keys;
	struct hash *hashes; /* owned */
	size_t cap;
};

static void blocks_deinit(struct blocks *b)
{
	index_keys_deinit(&b->keys);
	free(b->hashes);
}

static void blocks_clear(struct blocks *b)
{
	buf_clear(&b->keys.bytes);
	b->keys.n = 0;
}

/* The hash may still be unknown: it is set at the block's end. */
static int blocks_add(struct blocks *b, const uint8_t *key, size_t n, const struct hash *hash)
{
	int r = array_reserve(&b->hashes, &b->cap, b->keys.n + 1, sizeof(*b->hashes));

	if (!r)
		r = index_keys_add(&b->keys, key, n);
	if (!r)
		b->hashes[b->keys.n - 1] = hash ? *hash : (struct hash){0};
	return r;
}

/* Hash over label, level, and the children's hashes, which have been put behind the two. */
static void payload_begin(struct buf *b, unsigned level)
{
	buf_clear(b);
	put_bytes(b, HASH_LABEL, HASH_LABEL_BYTES);
	put_u8(b, (uint8_t)level);
}

/* --- bringing one level up to date --- */

struct update {
	struct index_txn *w;
	enum tree_which which;
	unsigned level;
	struct level below;		  /* entries of level - 1 */
	struct level old;		  /* blocks of level */
	const struct index_keys *touched; /* of level - 1, sorted */
	size_t next;			  /* the first touched key that no run has dealt with */
	struct buf payload;		  /* of the block being filled */
	struct blocks was, is;		  /* of the run */
	struct index_keys *changed;	  /* what is touched at this level */
};

static void update_deinit(struct update *u)
{
	level_deinit(&u->below);
	level_deinit(&u->old);
	buf_deinit(&u->payload);
	blocks_deinit(&u->was);
	blocks_deinit(&u->is);
}

static int block_end(struct update *u)
{
	if (!u->is.keys.n)
		return 0;
	if (buf_error(&u->payload))
		return buf_error(&u->payload);
	hash_bytes(
		u->w->algorithm, u->payload.data, u->payload.len, &u->is.hashes[u->is.keys.n - 1]);
	return 0;
}

/* Take old blocks into u->was that begin before the key (NULL: all). */
static int collect_old(struct update *u, const uint8_t *key, size_t n)
{
	while (u->old.key && (!key || level_compare(&u->old, key, n) < 0)) {
		int r = blocks_add(&u->was, u->old.key, u->old.key_n, &u->old.hash);

		if (!r)
			r = level_move(&u->old, MDB_NEXT);
		if (r)
			return r;
	}
	return 0;
}

/* A new block begins where u->below stands. May the run end here? */
static int met_old(struct update *u, bool *ret)
{
	const uint8_t *key = u->below.key, *t;
	size_t n = u->below.key_n, t_n;
	int r = collect_old(u, key, n);

	*ret = false;
	if (r)
		return r;
	for (; u->next < u->touched->n; u->next++) {
		t = index_keys_at(u->touched, u->next, &t_n);
		if (index_key_compare(t, t_n, key, n) >= 0)
			break;
	}
	if (!u->is.keys.n || !u->old.key || level_compare(&u->old, key, n))
		return 0;
	if (u->next < u->touched->n) {
		t = index_keys_at(u->touched, u->next, &t_n);
		if (!index_key_compare(t, t_n, key, n))
			return 0;
	}
	*ret = true;
	return 0;
}

/* Recompute blocks from where u->below stands. Nothing is written: both cursors stay valid. */
static int run_blocks(struct update *u)
{
	size_t count = 0;
	bool met;
	int r;

	while (u->below.key) {
		if (!count || begins(u->w, u->level, u->below.key, u->below.key_n, count)) {
			r = block_end(u);
			if (!r)
				r = met_old(u, &met);
			if (r || met)
				return r;
			r = blocks_add(&u->is, u->below.key, u->below.key_n, NULL);
			if (r)
				return r;
			payload_begin(&u->payload, u->level);
			count = 0;
		}
		put_bytes(&u->payload, u->below.hash.bytes, HASH_BYTES);
		count++;
		r = level_move(&u->below, MDB_NEXT);
		if (r)
			return r;
	}
	u->next = u->touched->n;
	r = block_end(u);
	return r ? r : collect_old(u, NULL, 0);
}

static int store_block(struct update *u, const uint8_t *key, size_t n, const struct hash *hash)
{
	uint8_t whole[BLOCK_KEY_BYTES_MAX] = {(uint8_t)u->which, (uint8_t)u->level};
	int r;

	memcpy(whole + BLOCK_KEY_HEAD, key, n);
	if (hash) {
		index_scratch_begin(u->w);
		put_bytes(&u->w->scratch, hash->bytes, HASH_BYTES);
		r = index_table_put(u->w, INDEX_TABLE_TREE, whole, BLOCK_KEY_HEAD + n);
	} else {
		r = index_table_delete(u->w, INDEX_TABLE_TREE, whole, BLOCK_KEY_HEAD + n);
	}
	return r ? index_fail(u->w, r) : index_keys_add(u->changed, key, n);
}

/* Write what differs between u->was and u->is. */
static int store_run(struct update *u)
{
	size_t i = 0, j = 0, a_n = 0, b_n = 0;

	while (i < u->was.keys.n || j < u->is.keys.n) {
		const uint8_t *a = i < u->was.keys.n ? index_keys_at(&u->was.keys, i, &a_n) : NULL;
		const uint8_t *b = j < u->is.keys.n ? index_keys_at(&u->is.keys, j, &b_n) : NULL;
		int order = !a ? 1 : !b ? -1 : index_key_compare(a, a_n, b, b_n), r = 0;

		if (order < 0)
			r = store_block(u, a, a_n, NULL);
		else if (order > 0 || !hash_equal(&u->was.hashes[i], &u->is.hashes[j]))
			r = store_block(u, b, b_n, &u->is.hashes[j]);
		if (r)
			return r;
		i += order <= 0;
		j += order >= 0;
	}
	return 0;
}

/* One run: from the last beginning before the next touched key. */
static int update_run(struct update *u)
{
	uint8_t start[PATH_KEY_BYTES_MAX];
	const uint8_t *key;
	size_t n, start_n;
	int r;

	key = index_keys_at(u->touched, u->next, &n);
	r = level_seek_before(&u->old, key, n);
	if (r)
		return r;
	start_n = u->old.key ? u->old.key_n : 0;
	if (start_n)
		memcpy(start, u->old.key, start_n);
	blocks_clear(&u->was);
	blocks_clear(&u->is);
	r = level_seek(&u->old, start, start_n);
	if (!r)
		r = level_seek(&u->below, start, start_n);
	if (!r)
		r = run_blocks(u);
	return r ? r : store_run(u);
}

static int update_level(struct index_txn *w, enum tree_which which, unsigned level,
	const struct index_keys *touched, struct index_keys *ret_changed)
{
	struct update u cleanup(update_deinit) = {
		.w = w, .which = which, .level = level, .touched = touched, .changed = ret_changed};
	int r = level_open(&u.below, w, which, level - 1);

	if (!r)
		r = level_open(&u.old, w, which, level);
	while (!r && u.next < touched->n)
		r = update_run(&u);
	return r;
}

static int update_tree(struct index_txn *w, enum tree_which which)
{
	struct index_keys changed[TREE_LEVELS + 1] = {w->touched[which]};
	int r = 0;

	w->touched[which] = (struct index_keys){0};
	index_keys_sort(&changed[0]);
	for (unsigned level = 1; !r && level <= TREE_LEVELS; level++)
		r = update_level(w, which, level, &changed[level - 1], &changed[level]);
	for (size_t i = 0; i < ARRAY_SIZE(changed); i++)
		index_keys_deinit(&changed[i]);
	return r ? index_fail(w, r) : 0;
}

int tree_update(struct index_txn *w)
{
	int r = w->touched[TREE_LIVE].n ? update_tree(w, TREE_LIVE) : 0;

	if (!r && w->touched[TREE_TOMBSTONES].n)
		r = update_tree(w, TREE_TOMBSTONES);
	return r;
}

/* With no blocks left, a touched key before all others makes each level one run over everything. */
int tree_rebuild(struct index_txn *w)
{
	int r = index_error(mdb_drop(w->txn, w->x->dbi[INDEX_TABLE_TREE], 0));

	for (int which = 0; !r && which < 2; which++) {
		index_keys_deinit(&w->touched[which]);
		r = index_keys_add(&w->touched[which], "", 0);
	}
	if (!r)
		r = tree_update(w);
	return r ? index_fail(w, r) : 0;
}

/* --- reading --- */

/* In a write transaction the blocks are as of its last update. */
static int bring_up_to_date(struct index_txn *t)
{
	if (t->failed)
		return t->failed;
	return t->write ? tree_update(t) : 0;
}

static void entry_of(const struct level *l, struct tree_entry *ret)
{
	ret->key.len = (uint16_t)l->key_n;
	memcpy(ret->key.bytes, l->key, l->key_n);
	ret->hash = l->hash;
}

int tree_entries(struct index_txn *t, enum tree_which which, unsigned level,
	const struct path_key *from, const struct path_key *to, tree_emit *emit, void *data)
{
	struct level l cleanup(level_deinit) = {0};
	struct tree_entry entry;
	int r;

	if (level > TREE_LEVELS)
		return -EINVAL;
	r = bring_up_to_date(t);
	if (!r)
		r = level_open(&l, t, which, level);
	if (!r)
		r = level_seek(&l, from->bytes, from->len);
	while (!r && l.key && (!to || level_compare(&l, to->bytes, to->len) < 0)) {
		entry_of(&l, &entry);
		r = emit(&entry, data);
		if (!r)
			r = level_move(&l, MDB_NEXT);
	}
	return r;
}

int tree_entries_descending(struct index_txn *t, enum tree_which which, unsigned level,
	const struct path_key *from, const struct path_key *to, tree_emit *emit, void *data)
{
	struct level l cleanup(level_deinit) = {0};
	struct tree_entry entry;
	int r;

	if (level > TREE_LEVELS)
		return -EINVAL;
	r = bring_up_to_date(t);
	if (!r)
		r = level_open(&l, t, which, level);
	if (!r)
		r = level_seek_before(&l, to ? to->bytes : NULL, to ? to->len : 0);
	while (!r && l.key && level_compare(&l, from->bytes, from->len) >= 0) {
		entry_of(&l, &entry);
		r = emit(&entry, data);
		if (!r)
			r = level_move(&l, MDB_PREV);
	}
	return r;
}

int tree_root(struct index_txn *t, enum tree_which which, struct hash *ret)
{
	struct level l cleanup(level_deinit) = {0};
	struct buf payload cleanup(buf_deinit) = BUF_INIT;
	int r = bring_up_to_date(t);

	if (!r)
		r = index_load_key(t);
	if (!r)
		r = level_open(&l, t, which, TREE_LEVELS);
	if (!r)
		r = level_seek(&l, NULL, 0);
	if (r)
		return r;
	if (!l.key) {
		*ret = (struct hash){0};
		return 0;
	}
	payload_begin(&payload, TREE_LEVELS + 1);
	while (!r && l.key) {
		put_bytes(&payload, l.hash.bytes, HASH_BYTES);
		r = level_move(&l, MDB_NEXT);
	}
	if (!r)
		r = buf_error(&payload);
	if (!r)
		hash_bytes(t->algorithm, payload.data, payload.len, ret);
	return r;
}
