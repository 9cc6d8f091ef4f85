/*
 * merkle/index_rows.c — rows, and the tables that follow from them.
 *
 *   rows-live, rows-tombstones   path key -> record hash (32) [path, where the key is cut] row
 *   rows-local                   path key ->                  [path, where the key is cut] row
 *   changes                      sequence (big-endian) -> path
 *   contents, inodes             XXH3 of the root or inode, sequence (both big-endian) -> nothing
 *
 * Invariants
 *   – A path stands in one of the three tables of rows at most.
 *   – A row with a record has one entry in `changes`; live and on disk, also one in `inodes`, and a
 *     file one in `contents`.
 *   – Every change of a row goes through apply_change(), which keeps all of this, the counts and the
 *     tree in step.
 */
#include <assert.h>
#include <endian.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "merkle/index_internal.h"

#define PAIR_BYTES 16 /* a key of contents and inodes */

DEFINE_CLEANUP(struct index_cursor *, index_cursor_close)

static void cleanup_row(struct row *r)
{
	row_deinit(r);
}

static enum index_table class_table(enum index_class class)
{
	return (enum index_table)(INDEX_TABLE_LIVE + (int)class);
}

static enum index_class class_of(const struct row *r)
{
	if (!row_has_record(r))
		return INDEX_CLASS_LOCAL;
	return row_live(r) ? INDEX_CLASS_LIVE : INDEX_CLASS_TOMBSTONE;
}

static bool key_is_cut(size_t key_n)
{
	return key_n == PATH_KEY_BYTES_MAX;
}

/* --- a row's value --- */

static char *path_of_plain_key(const uint8_t *key, size_t n)
{
	char *path = malloc(n + 1);

	if (!path)
		return NULL;
	for (size_t i = 0; i < n; i++)
		path[i] = key[i] ? (char)key[i] : '/';
	path[n] = '\0';
	return path;
}

/* Reads up to the row itself. ret_path may be NULL. */
static int value_path(const uint8_t *key, size_t key_n, struct cursor *value, char **ret_path)
{
	char *path cleanup_free = NULL;

	if (key_is_cut(key_n)) {
		path = get_text(value, FILE_PATH_BYTES_MAX);
		if (!path)
			return -EBADMSG;
	} else if (ret_path) {
		path = path_of_plain_key(key, key_n);
		if (!path)
			return -ENOMEM;
	}
	if (ret_path)
		*ret_path = steal(path);
	return 0;
}

/* What stands before the row itself. ret_hash and ret_path may be NULL. */
static int value_begin(enum index_class class, const uint8_t *key, size_t key_n,
	struct cursor *value, struct hash *ret_hash, char **ret_path)
{
	struct hash hash = {0};
	int r = class == INDEX_CLASS_LOCAL ? 0 : index_row_hash(value, &hash);

	if (!r)
		r = value_path(key, key_n, value, ret_path);
	if (!r && ret_hash)
		*ret_hash = hash;
	return r;
}

/* ret_hash, ret_path and ret may each be NULL; ret must be empty and stays so on failure. */
static int value_decode(enum index_class class, const uint8_t *key, size_t key_n,
	struct cursor value, struct hash *ret_hash, char **ret_path, struct row *ret)
{
	char *path cleanup_free = NULL;
	struct hash hash;
	int r = value_begin(class, key, key_n, &value, &hash, ret_path ? &path : NULL);

	if (r)
		return r;
	if (ret) {
		row_get(&value, ret);
		if (cursor_finish(&value) || class_of(ret) != class) {
			row_deinit(ret);
			return -EBADMSG;
		}
	}
	if (ret_hash)
		*ret_hash = hash;
	if (ret_path)
		*ret_path = steal(path);
	return 0;
}

/* Which table has the key, and its value. INDEX_ABSENT. */
static int find(struct index_txn *t, const struct path_key *key, enum index_class *ret_class,
	struct cursor *ret)
{
	for (int class = 0; class < INDEX_CLASSES; class ++) {
		int r = index_table_get(t, class_table(class), key->bytes, key->len, ret);

		if (r != INDEX_ABSENT) {
			*ret_class = class;
			return r;
		}
	}
	return INDEX_ABSENT;
}

int index_row_path(
	struct index_txn *t, enum index_class class, const struct path_key *key, char **ret)
{
	struct cursor value;
	int r = index_table_get(t, class_table(class), key->bytes, key->len, &value);

	return r ? r : value_decode(class, key->bytes, key->len, value, NULL, ret, NULL);
}

int index_get(struct index_txn *t, const char *path, struct row *ret)
{
	enum index_class class;
	struct path_key key;
	struct cursor value;
	int r;

	if (!*path)
		return INDEX_ABSENT;
	path_key(&key, path);
	r = find(t, &key, &class, &value);
	return r ? r : value_decode(class, key.bytes, key.len, value, NULL, NULL, ret);
}

/* --- changing a row --- */

struct half { /* of a change: a row as it was, or as it will be */
	bool there;
	enum index_class class;
	const struct row *row;
	struct hash hash; /* of the record; zero for class local */
	size_t bytes;	  /* of its value */
};

struct change {
	const char *path;
	struct path_key key;
	struct half old, new;
};

static bool half_on_disk(const struct half *h)
{
	return h->there && h->class == INDEX_CLASS_LIVE && h->row->place == ROW_ON_DISK;
}

static bool half_has_content(const struct half *h)
{
	return half_on_disk(h) && h->row->record.kind == RECORD_FILE;
}

static bool half_has_nodes(const struct half *h)
{
	return half_has_content(h) && h->row->record.content.height > 0;
}

static uint64_t half_seq(const struct half *h)
{
	return h->there && h->class != INDEX_CLASS_LOCAL ? h->row->seq : 0;
}

/* A table that had to have the entry has it not: the index is damaged. */
static int delete_existing(
	struct index_txn *w, enum index_table table, const void *key, size_t key_n)
{
	int r = index_table_delete(w, table, key, key_n);

	return r == INDEX_ABSENT ? index_fail(w, -EBADMSG) : r;
}

static void pair_key(uint8_t *ret, uint64_t value, uint64_t seq)
{
	value = htobe64(value);
	seq = htobe64(seq);
	memcpy(ret, &value, 8);
	memcpy(ret + 8, &seq, 8);
}

uint64_t index_root_name(const struct hash *root)
{
	return hash_fast(root->bytes, HASH_BYTES, 0);
}

/* Take the old pair out and put the new one in; NULL: there is none. */
static int change_pair(
	struct index_txn *w, enum index_table table, const uint8_t *old, const uint8_t *new)
{
	MDB_val k = {PAIR_BYTES, (void *)new}, v = {0, NULL};
	int r;

	if (old && new && !memcmp(old, new, PAIR_BYTES))
		return 0;
	if (old) {
		r = delete_existing(w, table, old, PAIR_BYTES);
		if (r)
			return r;
	}
	if (!new)
		return 0;
	r = index_error(mdb_put(w->txn, w->x->dbi[table], &k, &v, 0));
	return r ? index_fail(w, r) : 0;
}

static int change_pairs(struct index_txn *w, const struct change *c)
{
	const struct half *o = &c->old, *n = &c->new;
	uint8_t was[PAIR_BYTES], is[PAIR_BYTES];
	int r;

	if (half_has_content(o))
		pair_key(was, index_root_name(&o->row->record.content.root), o->row->seq);
	if (half_has_content(n))
		pair_key(is, index_root_name(&n->row->record.content.root), n->row->seq);
	r = change_pair(w, INDEX_TABLE_CONTENTS, half_has_content(o) ? was : NULL,
		half_has_content(n) ? is : NULL);
	if (r)
		return r;
	if (half_on_disk(o))
		pair_key(was, o->row->stamp.ino, o->row->seq);
	if (half_on_disk(n))
		pair_key(is, n->row->stamp.ino, n->row->seq);
	return change_pair(
		w, INDEX_TABLE_INODES, half_on_disk(o) ? was : NULL, half_on_disk(n) ? is : NULL);
}

static int change_row(struct index_txn *w, const struct change *c)
{
	if (c->old.there && c->old.class == INDEX_CLASS_LIVE)
		w->live_grown -= (int64_t)(c->old.bytes + c->key.len);
	if (c->old.there && (!c->new.there || c->new.class != c->old.class)) {
		int r = delete_existing(w, class_table(c->old.class), c->key.bytes, c->key.len);

		if (r)
			return r;
	}
	if (!c->new.there)
		return 0;
	index_scratch_begin(w);
	if (c->new.class != INDEX_CLASS_LOCAL)
		put_bytes(&w->scratch, c->new.hash.bytes, HASH_BYTES);
	if (key_is_cut(c->key.len))
		put_string(&w->scratch, c->path, strlen(c->path));
	row_put(&w->scratch, c->new.row);
	if (c->new.class == INDEX_CLASS_LIVE) {
		w->live_grown += (int64_t)(w->scratch.len + c->key.len);
		w->live_put += (int64_t)(w->scratch.len + c->key.len);
	}
	return index_table_put(w, class_table(c->new.class), c->key.bytes, c->key.len);
}

static int change_sequence(struct index_txn *w, const struct change *c)
{
	uint64_t old = half_seq(&c->old), new = half_seq(&c->new), key;
	int r;

	if (old == new)
		return 0;
	if (old) {
		key = htobe64(old);
		r = delete_existing(w, INDEX_TABLE_CHANGES, &key, sizeof(key));
		if (r)
			return r;
	}
	if (!new)
		return 0;
	key = htobe64(new);
	index_scratch_begin(w);
	put_bytes(&w->scratch, c->path, strlen(c->path));
	return index_table_put(w, INDEX_TABLE_CHANGES, &key, sizeof(key));
}

static void count_half(struct index_counts *n, const struct half *h, uint64_t one)
{
	if (!h->there)
		return;
	if (h->class == INDEX_CLASS_LIVE) {
		n->live += one;
		if (h->row->record.kind == RECORD_FILE)
			n->bytes += one * h->row->record.content.size;
	} else if (h->class == INDEX_CLASS_TOMBSTONE) {
		n->tombstones += one;
	}
}

/* Note the key for either tree whose level-0 entry is another now. */
static int touch(struct index_txn *w, const struct change *c)
{
	for (int which = 0; which < 2; which++) {
		bool was = c->old.there && (int)c->old.class == which;
		bool is = c->new.there && (int)c->new.class == which;
		int r;

		if (was == is && (!was || hash_equal(&c->old.hash, &c->new.hash)))
			continue;
		r = index_keys_add(&w->touched[which], c->key.bytes, c->key.len);
		if (r)
			return index_fail(w, r);
	}
	return 0;
}

static int apply_change(struct index_txn *w, const struct change *c)
{
	bool had = half_has_nodes(&c->old), has = half_has_nodes(&c->new);
	const struct hash *old_root = had ? &c->old.row->record.content.root : NULL;
	const struct hash *new_root = has ? &c->new.row->record.content.root : NULL;
	bool same_nodes = had == has && (!had || hash_equal(old_root, new_root));
	int r = 0;

	if (has && !same_nodes)
		r = index_node_acquire(w, new_root);
	if (r)
		return r;
	w->generation++;
	w->counts_dirty = true;
	count_half(&w->counts, &c->old, UINT64_MAX);
	count_half(&w->counts, &c->new, 1);
	r = change_row(w, c);
	if (!r)
		r = change_sequence(w, c);
	if (!r)
		r = change_pairs(w, c);
	if (!r)
		r = touch(w, c);
	if (!r && had && !same_nodes)
		r = index_node_release(w, old_root);
	if (!r && has && !same_nodes)
		r = index_tree_note(w, new_root);
	return r;
}

/* Fill path, key and the old half; `old` receives the row that the half points at. */
static int change_begin(struct index_txn *w, const char *path, struct row *old, struct change *ret)
{
	struct cursor value;
	int r;

	assert(w->write);
	if (w->failed)
		return w->failed;
	if (!path_valid(path))
		return -EINVAL;
	*ret = (struct change){.path = path};
	path_key(&ret->key, path);
	r = find(w, &ret->key, &ret->old.class, &value);
	if (r)
		return r == INDEX_ABSENT ? 0 : r;
	ret->old.bytes = cursor_left(&value) + sizeof(uint64_t);
	r = value_decode(
		ret->old.class, ret->key.bytes, ret->key.len, value, &ret->old.hash, NULL, old);
	if (r)
		return r;
	ret->old.there = true;
	ret->old.row = old;
	return 0;
}

int index_put(struct index_txn *w, const char *path, struct row *row)
{
	struct row old cleanup(cleanup_row) = {0};
	uint64_t seq_before = row->seq;
	struct change c;
	int r;

	r = change_begin(w, path, &old, &c);
	if (r)
		return r;
	if (!w->keyed)
		return -EINVAL;
	c.new = (struct half){.there = true, .class = class_of(row), .row = row};
	row->seq = 0;
	if (c.new.class != INDEX_CLASS_LOCAL) {
		r = record_hash(w->algorithm, path, &row->record, &c.new.hash);
		row->seq = w->counts.head_seq + 1;
	}
	if (!r)
		r = apply_change(w, &c);
	if (r) {
		row->seq = seq_before;
		return r;
	}
	if (row->seq)
		w->counts.head_seq = row->seq;
	return 0;
}

int index_restamp(struct index_txn *w, const char *path, const struct row *row)
{
	struct row old cleanup(cleanup_row) = {0};
	struct hash hash = {0};
	struct row new;
	struct change c;
	int r;

	r = change_begin(w, path, &old, &c);
	if (r)
		return r;
	if (!c.old.there)
		return INDEX_ABSENT;
	if (row_has_record(row)) {
		r = record_hash(w->algorithm, path, &row->record, &hash);
		if (r)
			return r;
	}
	if (class_of(row) != c.old.class || !hash_equal(&hash, &c.old.hash))
		return -EINVAL;
	new = old; /* shares what old owns */
	new.place = row->place;
	new.stamp = row->stamp;
	new.recorded_ns = row->recorded_ns;
	c.new = c.old;
	c.new.row = &new;
	return apply_change(w, &c);
}

int index_drop(struct index_txn *w, const char *path)
{
	struct row old cleanup(cleanup_row) = {0};
	struct change c;
	int r;

	r = change_begin(w, path, &old, &c);
	if (r)
		return r;
	if (!c.old.there)
		return INDEX_ABSENT;
	r = apply_change(w, &c);
	if (r)
		return r;
	if (half_seq(&c.old) > w->counts.purged_seq)
		w->counts.purged_seq = half_seq(&c.old);
	return 0;
}

int index_rows_clear(struct index_txn *w)
{
	static const enum index_table tables[] = {INDEX_TABLE_LIVE, INDEX_TABLE_TOMBSTONES,
		INDEX_TABLE_LOCAL, INDEX_TABLE_CHANGES, INDEX_TABLE_CONTENTS, INDEX_TABLE_INODES,
		INDEX_TABLE_NODES, INDEX_TABLE_TREE};
	uint64_t head = w->counts.head_seq;

	for (size_t i = 0; i < ARRAY_SIZE(tables); i++) {
		int rc = mdb_drop(w->txn, w->x->dbi[tables[i]], 0);

		if (rc)
			return index_fail(w, index_error(rc));
	}
	index_keys_deinit(&w->touched[0]);
	index_keys_deinit(&w->touched[1]);
	w->n_released = 0;
	w->counts = (struct index_counts){.head_seq = head, .purged_seq = head};
	w->counts_dirty = true;
	w->generation++;
	return 0;
}

/* --- iterating: three tables merged --- */

struct index_cursor {
	struct index_txn *t;
	MDB_cursor *table[INDEX_CLASSES];
	MDB_val key[INDEX_CLASSES],
		value[INDEX_CLASSES]; /* key.mv_data NULL: the table is at its end */
	int at;	   /* the class whose key is the least; -1: at the end, or not yet anywhere */
	bool gone; /* the row under the cursor was dropped; the tables stand behind it */
	struct path_key here; /* where we are, as a copy */
	uint64_t generation;  /* of the transaction when the values were read */
};

int index_cursor_open(struct index_txn *t, struct index_cursor **ret)
{
	struct index_cursor *c cleanup(index_cursor_close_p) = calloc(1, sizeof(*c));

	if (!c)
		return -ENOMEM;
	c->t = t;
	c->at = -1;
	for (int i = 0; i < INDEX_CLASSES; i++) {
		int r = index_table_cursor(t, class_table(i), &c->table[i]);

		if (r)
			return r;
	}
	*ret = steal(c);
	return 0;
}

void index_cursor_close(struct index_cursor *c)
{
	if (!c)
		return;
	for (int i = 0; i < INDEX_CLASSES; i++)
		index_table_cursor_close(c->table[i]);
	free(c);
}

static int cursor_move(struct index_cursor *c, int i, MDB_cursor_op op)
{
	int r = index_error(mdb_cursor_get(c->table[i], &c->key[i], &c->value[i], op));

	if (r == INDEX_ABSENT)
		c->key[i] = (MDB_val){0};
	else if (!r && (!c->key[i].mv_size || c->key[i].mv_size > PATH_KEY_BYTES_MAX))
		return -EBADMSG;
	return r == INDEX_ABSENT ? 0 : r;
}

static int cursor_choose(struct index_cursor *c)
{
	c->at = -1;
	c->gone = false;
	for (int i = 0; i < INDEX_CLASSES; i++) {
		const MDB_val *k = &c->key[i];

		if (k->mv_data &&
			(c->at < 0 || index_key_compare(k->mv_data, k->mv_size,
					      c->key[c->at].mv_data, c->key[c->at].mv_size) < 0))
			c->at = i;
	}
	if (c->at < 0)
		return INDEX_ABSENT;
	c->here.len = (uint16_t)c->key[c->at].mv_size;
	memcpy(c->here.bytes, c->key[c->at].mv_data, c->here.len);
	return 0;
}

int index_cursor_seek_key(struct index_cursor *c, const struct path_key *key)
{
	for (int i = 0; i < INDEX_CLASSES; i++) {
		int r;

		c->key[i] = (MDB_val){key->len, (void *)key->bytes};
		r = cursor_move(c, i, key->len ? MDB_SET_RANGE : MDB_FIRST);
		if (r) {
			c->at = -1;
			return r;
		}
	}
	c->generation = c->t->generation;
	return cursor_choose(c);
}

int index_cursor_seek(struct index_cursor *c, const char *path)
{
	struct path_key key;

	path_key(&key, path);
	return index_cursor_seek_key(c, &key);
}

/* Rows were written since the values were read: find the place again. */
static int cursor_refresh(struct index_cursor *c)
{
	struct path_key place;
	bool was_gone = c->gone;
	int r;

	if (c->at < 0 || c->generation == c->t->generation)
		return 0;
	place = c->here;
	r = index_cursor_seek_key(c, &place);
	if (r < 0)
		return r;
	c->gone = r == INDEX_ABSENT || path_key_compare(&place, &c->here) || was_gone;
	if (r == INDEX_ABSENT)
		c->at = 0; /* still somewhere: behind the last row */
	c->here = place;
	return 0;
}

int index_cursor_next(struct index_cursor *c)
{
	int r = cursor_refresh(c);

	if (r)
		return r;
	if (c->at < 0)
		return INDEX_ABSENT;
	for (int i = 0; i < INDEX_CLASSES; i++) {
		const MDB_val *k = &c->key[i];

		if (!k->mv_data ||
			index_key_compare(k->mv_data, k->mv_size, c->here.bytes, c->here.len) > 0)
			continue;
		r = cursor_move(c, i, MDB_NEXT);
		if (r)
			return r;
	}
	return cursor_choose(c);
}

int index_cursor_forward(struct index_cursor *c, const struct path_key *key)
{
	int r = index_cursor_next(c);

	return r || path_key_compare(&c->here, key) >= 0 ? r : index_cursor_seek_key(c, key);
}

static int cursor_value(struct index_cursor *c, struct cursor *ret)
{
	int r = cursor_refresh(c);

	if (r)
		return r;
	return c->at < 0 || c->gone ? INDEX_ABSENT : index_value_open(&c->key[c->at], &c->value[c->at], ret);
}

int index_cursor_get(struct index_cursor *c, char **ret_path, struct row *ret_row)
{
	struct cursor value;
	int r = cursor_value(c, &value);

	return r ? r
		 : value_decode((enum index_class)c->at, c->here.bytes, c->here.len, value, NULL,
			   ret_path, ret_row);
}

const struct path_key *index_cursor_key(const struct index_cursor *c)
{
	return &c->here;
}

int index_cursor_brief(struct index_cursor *c, struct row_brief *ret)
{
	struct cursor value;
	int r = cursor_value(c, &value);

	if (!r)
		r = value_begin((enum index_class)c->at, c->here.bytes, c->here.len, &value, NULL, NULL);
	if (r)
		return r;
	row_brief_get(&value, ret);
	if (!cursor_finish(&value) && ret->live == (c->at == INDEX_CLASS_LIVE))
		return 0;
	row_brief_deinit(ret);
	return -EBADMSG;
}

bool index_cursor_peek(
	struct index_cursor *c, struct path_key *ret_key, struct hash *ret_hash, bool *ret_live)
{
	struct cursor value;
	struct hash hash;

	if (cursor_refresh(c) || c->at < 0 || c->gone || c->at == INDEX_CLASS_LOCAL)
		return false;
	if (index_value_open(&c->key[c->at], &c->value[c->at], &value) ||
		index_row_hash(&value, &hash))
		return false;
	*ret_key = c->here;
	*ret_hash = hash;
	*ret_live = c->at == INDEX_CLASS_LIVE;
	return true;
}

/* --- below a path --- */

static bool starts_with(const MDB_val *key, const void *prefix, size_t n)
{
	return key->mv_size >= n && !memcmp(key->mv_data, prefix, n);
}

/* Among the cut keys that share the path's first bytes: the order says nothing there, the whole
 * paths do. */
static int any_live_below_cut(MDB_cursor *c, const char *path, const struct path_key *key)
{
	uint8_t prefix[PATH_KEY_PREFIX + 1];
	MDB_val k = {sizeof(prefix), prefix}, v;
	struct cursor value;
	int r;

	memcpy(prefix, key->bytes, PATH_KEY_PREFIX);
	prefix[PATH_KEY_PREFIX] = 0xff;
	for (r = index_error(mdb_cursor_get(c, &k, &v, MDB_SET_RANGE));
		!r && starts_with(&k, prefix, sizeof(prefix));
		r = index_error(mdb_cursor_get(c, &k, &v, MDB_NEXT))) {
		char *found cleanup_free = NULL;

		if (!key_is_cut(k.mv_size))
			continue;
		r = index_value_open(&k, &v, &value);
		if (!r)
			r = value_decode(
				INDEX_CLASS_LIVE, k.mv_data, k.mv_size, value, NULL, &found, NULL);
		if (r)
			return r;
		if (path_is_below(found, path))
			return 1;
	}
	return r < 0 ? r : 0;
}

int index_any_live_below(struct index_txn *t, const char *path)
{
	MDB_cursor *c cleanup(index_table_cursor_close_p) = NULL;
	uint8_t prefix[PATH_KEY_BYTES_MAX + 1];
	MDB_val k, v;
	struct path_key key;
	int r = index_table_cursor(t, INDEX_TABLE_LIVE, &c);

	if (r)
		return r;
	if (!*path) {
		r = index_error(mdb_cursor_get(c, &k, &v, MDB_FIRST));
		return r < 0 ? r : r == 0;
	}
	path_key(&key, path);
	memcpy(prefix, key.bytes, key.len);
	prefix[key.len] = 0;
	k = (MDB_val){(size_t)key.len + 1, prefix};
	r = index_error(mdb_cursor_get(c, &k, &v, MDB_SET_RANGE));
	if (r < 0)
		return r;
	if (!r && starts_with(&k, prefix, (size_t)key.len + 1))
		return 1;
	return key.len < PATH_KEY_PREFIX ? 0 : any_live_below_cut(c, path, &key);
}

int index_any_leaf_above(struct index_txn *t, const char *path)
{
	cleanup_free char *at = strdup(path);
	int r = at ? 0 : -ENOMEM;

	while (r >= 0 && *at) {
		struct row row cleanup(row_deinit) = {0};

		at[path_parent_length(at)] = '\0';
		r = *at ? index_get(t, at, &row) : 0;
		if (r == 0 && row_live(&row) && row.place == ROW_ON_DISK && row.record.kind != RECORD_DIRECTORY)
			return 1;
	}
	return r < 0 ? r : 0;
}

int index_count_live(struct index_txn *t, const char *top, uint64_t *ret)
{
	MDB_cursor *c cleanup(index_table_cursor_close_p) = NULL;
	struct path_key key;
	uint64_t n = 0;
	MDB_val k, v;
	int r;

	path_key(&key, top);
	if (!key.len || key.len >= PATH_KEY_PREFIX)
		return -EINVAL;
	r = index_table_cursor(t, INDEX_TABLE_LIVE, &c);
	if (r)
		return r;
	k = (MDB_val){key.len, key.bytes};
	for (r = index_error(mdb_cursor_get(c, &k, &v, MDB_SET_RANGE)); !r && starts_with(&k, key.bytes, key.len);
		r = index_error(mdb_cursor_get(c, &k, &v, MDB_NEXT))) {
		if (k.mv_size > key.len && ((const uint8_t *)k.mv_data)[key.len] != 0)
			break;
		n++;
	}
	if (r < 0)
		return r;
	*ret = n;
	return 0;
}

/* --- by sequence, content, inode --- */

static int change_path(struct cursor value, char **ret)
{
	size_t n = cursor_left(&value);
	char *path;

	if (!n || n > FILE_PATH_BYTES_MAX)
		return -EBADMSG;
	path = malloc(n + 1);
	if (!path)
		return -ENOMEM;
	memcpy(path, value.p, n);
	path[n] = '\0';
	*ret = path;
	return 0;
}

int index_changes(struct index_txn *t, uint64_t after, index_change_emit *emit, void *data)
{
	MDB_cursor *c cleanup(index_table_cursor_close_p) = NULL;
	uint64_t key = htobe64(after + 1), seq;
	MDB_val k = {sizeof(key), &key}, v;
	struct cursor value;
	int r;

	if (after == UINT64_MAX)
		return 0;
	r = index_table_cursor(t, INDEX_TABLE_CHANGES, &c);
	if (r)
		return r;
	for (r = index_error(mdb_cursor_get(c, &k, &v, MDB_SET_RANGE)); !r;
		r = index_error(mdb_cursor_get(c, &k, &v, MDB_NEXT))) {
		char *path cleanup_free = NULL;

		r = k.mv_size == sizeof(seq) ? index_value_open(&k, &v, &value) : -EBADMSG;
		if (!r)
			r = change_path(value, &path);
		if (r)
			return r;
		memcpy(&seq, k.mv_data, sizeof(seq));
		r = emit(be64toh(seq), path, data);
		if (r)
			return r;
	}
	return r == INDEX_ABSENT ? 0 : r;
}

/* What a pair leads to: path and row. A pair that leads nowhere is damage. */
static int pair_row(struct index_txn *t, const MDB_val *pair, char **ret_path, struct row *ret)
{
	char *path cleanup_free = NULL;
	struct cursor value;
	int r;

	if (pair->mv_size != PAIR_BYTES)
		return -EBADMSG;
	r = index_table_get(t, INDEX_TABLE_CHANGES, (const uint8_t *)pair->mv_data + 8, 8, &value);
	if (!r)
		r = change_path(value, &path);
	if (!r)
		r = index_get(t, path, ret);
	if (r)
		return r < 0 ? r : -EBADMSG;
	*ret_path = steal(path);
	return 0;
}

/* Emit the paths of all pairs of `name` whose row has the content, if one is given. */
static int by_pair(struct index_txn *t, enum index_table table, uint64_t name,
	const struct content *content, index_path_emit *emit, void *data)
{
	MDB_cursor *c cleanup(index_table_cursor_close_p) = NULL;
	uint8_t from[PAIR_BYTES];
	MDB_val k = {sizeof(from), from}, v;
	int r;

	pair_key(from, name, 0);
	r = index_table_cursor(t, table, &c);
	if (r)
		return r;
	for (r = index_error(mdb_cursor_get(c, &k, &v, MDB_SET_RANGE));
		!r && starts_with(&k, from, 8);
		r = index_error(mdb_cursor_get(c, &k, &v, MDB_NEXT))) {
		struct row row cleanup(cleanup_row) = {0};
		char *path cleanup_free = NULL;

		r = pair_row(t, &k, &path, &row);
		if (r)
			return r;
		if (content && !content_equal(&row.record.content, content))
			continue;
		if (table == INDEX_TABLE_INODES && row.stamp.ino != name)
			continue;
		r = emit(path, data);
		if (r)
			return r;
	}
	return r == INDEX_ABSENT ? 0 : r;
}

int index_by_content(
	struct index_txn *t, const struct content *content, index_path_emit *emit, void *data)
{
	return by_pair(t, INDEX_TABLE_CONTENTS, index_root_name(&content->root), content, emit, data);
}

int index_by_root(struct index_txn *t, uint64_t name, index_path_emit *emit, void *data)
{
	return by_pair(t, INDEX_TABLE_CONTENTS, name, NULL, emit, data);
}

int index_by_inode(struct index_txn *t, uint64_t ino, index_path_emit *emit, void *data)
{
	return by_pair(t, INDEX_TABLE_INODES, ino, NULL, emit, data);
}
