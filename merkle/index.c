/*
 * merkle/index.c — the environment, transactions, checksummed tables; meta, intents, lineage.
 *
 * Invariants
 *   – Counts and head_seq are loaded when a write transaction begins and stored when it commits:
 *     they are of one transaction with the rows.
 *   – The tree's blocks are up to date in every committed transaction.
 *   – w->failed is set as soon as an operation has written something and could not finish; then
 *     index_commit aborts.
 */
#include "merkle/index.h"

#include <endian.h>
#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/error.h"
#include "merkle/index_check.h"
#include "merkle/index_internal.h"

#define INDEX_READERS_MAX 256
#define INDEX_MODE 0600
#define CHECK_BYTES 8

static const char *const table_names[INDEX_TABLES] = {
	[INDEX_TABLE_META] = "meta",
	[INDEX_TABLE_LIVE] = "rows-live",
	[INDEX_TABLE_TOMBSTONES] = "rows-tombstones",
	[INDEX_TABLE_LOCAL] = "rows-local",
	[INDEX_TABLE_CHANGES] = "changes",
	[INDEX_TABLE_CONTENTS] = "contents",
	[INDEX_TABLE_INODES] = "inodes",
	[INDEX_TABLE_NODES] = "nodes",
	[INDEX_TABLE_INTENTS] = "intents",
	[INDEX_TABLE_LINEAGE] = "lineage",
	[INDEX_TABLE_TREE] = "tree",
};

/* Sparse: only what is used takes room. The smaller ones are for limits on address space, and
 * valgrind. */
static const uint64_t map_bytes[] = {UINT64_C(1) << 40, UINT64_C(1) << 36, UINT64_C(1) << 32};

const char *index_table_name(enum index_table table)
{
	return table_names[table];
}

int index_table_find(const void *name, size_t n)
{
	for (int i = 0; i < INDEX_TABLES; i++)
		if (strlen(table_names[i]) == n && memcmp(table_names[i], name, n) == 0)
			return i;
	return -1;
}

int index_error(int rc)
{
	switch (rc) {
	case MDB_SUCCESS:
		return 0;
	case MDB_NOTFOUND:
		return INDEX_ABSENT;
	case MDB_MAP_FULL:
		return -ENOSPC;
	case MDB_CORRUPTED:
	case MDB_PAGE_NOTFOUND:
	case MDB_INVALID:
	case MDB_INCOMPATIBLE:
	case MDB_BAD_DBI:
		return -EBADMSG;
	case MDB_VERSION_MISMATCH:
		return -EPROTONOSUPPORT;
	case MDB_READERS_FULL:
		return -EBUSY;
	case MDB_TXN_FULL:
	case MDB_CURSOR_FULL:
	case MDB_PAGE_FULL:
		return -ENOBUFS;
	case MDB_BAD_VALSIZE:
		return -EMSGSIZE;
	case MDB_PANIC: /* a meta page could not be written: nothing goes until it is opened anew */
		return -ENOTRECOVERABLE;
	default: /* MDB_MAP_RESIZED, MDB_BAD_TXN */
		return rc > 0 ? -rc : -EIO;
	}
}

int index_fail(struct index_txn *w, int r)
{
	if (!w->failed)
		w->failed = r < 0 ? r : -EIO;
	return w->failed;
}

/* --- values and their checksum --- */

static uint64_t value_check(const void *key, size_t key_n, const void *p, size_t n)
{
	return hash_fast(p, n, hash_fast(key, key_n, 0));
}

int index_value_open(const MDB_val *key, const MDB_val *value, struct cursor *ret)
{
	struct cursor c = cursor_over(value->mv_data, value->mv_size);
	uint64_t check = get_u64(&c);

	if (c.failed || check != value_check(key->mv_data, key->mv_size, c.p, cursor_left(&c)))
		return -EBADMSG;
	*ret = c;
	return 0;
}

int index_table_get(struct index_txn *t, enum index_table table, const void *key, size_t key_n,
	struct cursor *ret)
{
	MDB_val k = {key_n, (void *)key}, v;
	int rc = mdb_get(t->txn, t->x->dbi[table], &k, &v);

	return rc ? index_error(rc) : index_value_open(&k, &v, ret);
}

void index_scratch_begin(struct index_txn *w)
{
	buf_clear(&w->scratch);
	put_u64(&w->scratch, 0); /* room for the checksum */
}

int index_table_put(struct index_txn *w, enum index_table table, const void *key, size_t key_n)
{
	struct buf *b = &w->scratch;
	MDB_val k = {key_n, (void *)key}, v;
	uint64_t check;
	int rc;

	if (buf_error(b))
		return index_fail(w, buf_error(b));
	check = htole64(value_check(key, key_n, b->data + CHECK_BYTES, b->len - CHECK_BYTES));
	memcpy(b->data, &check, sizeof(check));
	v = (MDB_val){b->len, b->data};
	rc = mdb_put(w->txn, w->x->dbi[table], &k, &v, 0);
	return rc ? index_fail(w, index_error(rc)) : 0;
}

int index_table_delete(struct index_txn *w, enum index_table table, const void *key, size_t key_n)
{
	MDB_val k = {key_n, (void *)key};
	int r = index_error(mdb_del(w->txn, w->x->dbi[table], &k, NULL));

	return r < 0 ? index_fail(w, r) : r;
}

int index_table_cursor(struct index_txn *t, enum index_table table, MDB_cursor **ret)
{
	return index_error(mdb_cursor_open(t->txn, t->x->dbi[table], ret));
}

void index_table_cursor_close(MDB_cursor *c)
{
	if (c)
		mdb_cursor_close(c);
}

/* --- key lists --- */

int index_key_compare(const void *a, size_t a_n, const void *b, size_t b_n)
{
	size_t n = a_n < b_n ? a_n : b_n;
	int c = n ? memcmp(a, b, n) : 0;

	return c ? c : (a_n > b_n) - (a_n < b_n);
}

void index_keys_deinit(struct index_keys *k)
{
	buf_deinit(&k->bytes);
	free(k->at);
	*k = (struct index_keys){0};
}

int index_keys_add(struct index_keys *k, const void *key, size_t n)
{
	uint16_t length = (uint16_t)n;
	size_t at = k->bytes.len;
	int r = array_reserve(&k->at, &k->cap, k->n + 1, sizeof(*k->at));

	if (r < 0)
		return r;
	put_bytes(&k->bytes, &length, sizeof(length));
	put_bytes(&k->bytes, key, n);
	if (buf_error(&k->bytes))
		return buf_error(&k->bytes);
	k->at[k->n++] = at;
	return 0;
}

static const uint8_t *key_at(const uint8_t *bytes, size_t at, size_t *ret_n)
{
	uint16_t length;

	memcpy(&length, bytes + at, sizeof(length));
	*ret_n = length;
	return bytes + at + sizeof(length);
}

const uint8_t *index_keys_at(const struct index_keys *k, size_t i, size_t *ret_n)
{
	return key_at(k->bytes.data, k->at[i], ret_n);
}

static int keys_compare(const void *a, const void *b, void *bytes)
{
	size_t a_n, b_n;
	const uint8_t *pa = key_at(bytes, *(const size_t *)a, &a_n);
	const uint8_t *pb = key_at(bytes, *(const size_t *)b, &b_n);

	return index_key_compare(pa, a_n, pb, b_n);
}

void index_keys_sort(struct index_keys *k)
{
	size_t i, kept = 0;
	bool sorted = true;

	for (i = 1; i < k->n && sorted; i++)
		sorted = keys_compare(&k->at[i - 1], &k->at[i], k->bytes.data) < 0;
	if (sorted)
		return;
	qsort_r(k->at, k->n, sizeof(*k->at), keys_compare, k->bytes.data);
	for (i = 0; i < k->n; i++)
		if (!kept || keys_compare(&k->at[kept - 1], &k->at[i], k->bytes.data))
			k->at[kept++] = k->at[i];
	k->n = kept;
}

int index_keys_copy(struct index_keys *ret, const struct index_keys *from)
{
	int r = 0;

	for (size_t i = 0; !r && i < from->n; i++) {
		size_t n;
		const uint8_t *key = index_keys_at(from, i, &n);

		r = index_keys_add(ret, key, n);
	}
	return r;
}

/* --- opening --- */

/* LMDB opens by name and follows symlinks: look first, and again at what it has opened (see
 * check_opened). */
static int check_file(int dir, const char *name, struct file_stat *ret)
{
	struct file_stat st;
	int r = file_stat_at(dir, name, &st);

	if (r)
		return r < 0 ? r : r == FILE_VANISHED ? INDEX_ABSENT : -EPERM;
	if (st.kind != FILE_KIND_REGULAR || st.nlink != 1)
		return -EPERM;
	*ret = st;
	return 0;
}

static int check_opened(MDB_env *env, int dir)
{
	struct file_stat named, opened;
	int fd, r;

	r = index_error(mdb_env_get_fd(env, &fd));
	if (!r)
		r = file_stat_fd(fd, &opened);
	if (!r)
		r = check_file(dir, "data.mdb", &named);
	if (r)
		return r < 0 ? r : -EPERM;
	return opened.ino == named.ino && opened.dev == named.dev ? 0 : -EPERM;
}

/* The last pages may be free ones that were never written: nothing that LMDB might read lies beyond
 * the end (a SIGBUS). */
static int extend_file(MDB_env *env)
{
	struct file_stat file;
	MDB_envinfo info;
	MDB_stat stat;
	uint64_t need;
	int fd, r;

	mdb_env_info(env, &info);
	mdb_env_stat(env, &stat);
	need = ((uint64_t)info.me_last_pgno + 1) * stat.ms_psize;
	r = index_error(mdb_env_get_fd(env, &fd));
	if (!r)
		r = file_stat_fd(fd, &file);
	if (!r && file.size < need)
		r = file_truncate(fd, need);
	return r > 0 ? -EIO : r;
}

/*
 * LMDB maps its lock file for writing, and a store into a map for which the disk has no room is a SIGBUS: on btrfs, which writes
 * to another place each time, whenever the disk is full. One process has an index open at a time (merkle/store), so the lock
 * file may lie in memory: for as long as LMDB opens it, a symlink leads there. What is at the name is of no use to anybody.
 */
static int lock_in_memory(int dir)
{
	char target[32];
	int r, fd = memfd_create("lock.mdb", MFD_CLOEXEC);

	if (fd < 0)
		return -errno;
	snprintf(target, sizeof(target), "/proc/self/fd/%d", fd);
	r = file_symlink(target, dir, "lock.mdb");
	if (r == FILE_EXISTS) {
		r = file_unlink(dir, "lock.mdb");
		if (!r)
			r = file_symlink(target, dir, "lock.mdb");
	}
	if (!r)
		return fd;
	close(fd);
	return r < 0 ? r : -EPERM;
}

/* On a disk without symlinks the lock file stays where LMDB puts it. */
static int open_locked(MDB_env *env, const char *path, int dir)
{
	cleanup_close int lock = lock_in_memory(dir);
	struct file_stat st;
	int r;

	if (lock < 0) {
		r = check_file(dir, "lock.mdb", &st);
		if (r < 0)
			return r;
	}
	r = index_error(mdb_env_open(env, path, MDB_NOTLS, INDEX_MODE));
	if (lock >= 0)
		file_unlink(dir, "lock.mdb");
	return r;
}

static int open_env_sized(MDB_env **ret, int dir, uint64_t bytes)
{
	char path[64];
	MDB_env *env;
	int dead, r;

	r = index_error(mdb_env_create(&env));
	if (r)
		return r;
	snprintf(path, sizeof(path), "/proc/self/fd/%d", dir);
	r = index_error(mdb_env_set_mapsize(env, (size_t)bytes));
	if (!r)
		r = index_error(mdb_env_set_maxdbs(env, INDEX_TABLES + 8));
	if (!r)
		r = index_error(mdb_env_set_maxreaders(env, INDEX_READERS_MAX));
	if (!r)
		r = open_locked(env, path, dir);
	if (r) {
		mdb_env_close(env);
		return r;
	}
	mdb_reader_check(env, &dead); /* slots of a process that was killed */
	*ret = env;
	return 0;
}

static int open_env(MDB_env **ret, int dir)
{
	int r = -ENOMEM;

	for (size_t i = 0; i < ARRAY_SIZE(map_bytes); i++) {
		r = open_env_sized(ret, dir, map_bytes[i]);
		if (r != -ENOMEM && r != -EINVAL && r != -EFBIG)
			break;
	}
	return r;
}

static int open_tables(struct index *x, MDB_txn *txn, unsigned flags)
{
	for (int i = 0; i < INDEX_TABLES; i++) {
		int rc = mdb_dbi_open(txn, table_names[i], flags, &x->dbi[i]);

		if (rc)
			return index_error(rc);
	}
	return 0;
}

/* An index without a format was never committed whole. */
static int check_format(struct index_txn *t, uint32_t *ret)
{
	struct cursor c;
	uint8_t key = INDEX_META_FORMAT;
	uint32_t format;
	int r = index_table_get(t, INDEX_TABLE_META, &key, 1, &c);

	if (r)
		return r;
	format = get_u32(&c);
	r = cursor_finish(&c);
	if (r < 0)
		return r;
	*ret = format;
	return format >= 1 && format <= INDEX_FORMAT ? 0 : -EPROTONOSUPPORT;
}

static int put_format(struct index_txn *w)
{
	uint8_t key = INDEX_META_FORMAT;

	index_scratch_begin(w);
	put_u32(&w->scratch, INDEX_FORMAT);
	return index_table_put(w, INDEX_TABLE_META, &key, 1);
}

/* What format 1 has, 2 has as well; programs that know only 1 are to refuse it from now on. */
static int raise_format(struct index *x)
{
	struct index_txn *w = NULL;
	int r = index_begin_write(x, &w);

	if (!r)
		r = put_format(w);
	if (!r)
		return index_commit(&w);
	index_abort(w);
	return r;
}

static int open_existing(struct index *x)
{
	struct index_txn t = {.x = x};
	uint32_t format;
	int r = index_error(mdb_txn_begin(x->env, NULL, MDB_RDONLY, &t.txn));

	if (r)
		return r < 0 ? r : -EIO;
	r = open_tables(x, t.txn, 0);
	if (!r)
		r = check_format(&t, &format);
	if (r) {
		mdb_txn_abort(t.txn);
		return r == INDEX_ABSENT ? INDEX_MISSING : r;
	}
	r = index_error(mdb_txn_commit(t.txn)); /* keeps the table handles */
	return r || format == INDEX_FORMAT ? r : raise_format(x);
}

static int create_tables(struct index *x)
{
	struct index_txn w = {.x = x, .write = true};
	int r = index_error(mdb_txn_begin(x->env, NULL, 0, &w.txn));

	if (r)
		return r < 0 ? r : -EIO;
	r = open_tables(x, w.txn, MDB_CREATE);
	if (!r)
		r = put_format(&w);
	buf_deinit(&w.scratch);
	if (r) {
		mdb_txn_abort(w.txn);
		return r < 0 ? r : -EIO;
	}
	return index_error(mdb_txn_commit(w.txn));
}

DEFINE_CLEANUP(struct index *, index_close)

int index_open(struct index **ret, int dir, bool create)
{
	struct index *x cleanup(index_close_p) = NULL;
	struct file_stat st;
	int64_t checked_s;
	int r;

	r = check_file(dir, "data.mdb", &st);
	if (r < 0)
		return r;
	if (r == INDEX_ABSENT && !create)
		return INDEX_MISSING;
	r = index_check_sealed(dir, &checked_s);
	if (r < 0 || (r == INDEX_MISSING && !create))
		return r;

	x = calloc(1, sizeof(*x));
	if (!x)
		return -ENOMEM;
	pthread_mutex_init(&x->trees_lock, NULL);
	x->checked_s = checked_s;
	r = file_open_directory_at(dir, "", &x->dir);
	if (r)
		x->dir = -1;
	if (!r)
		r = open_env(&x->env, dir);
	if (!r)
		r = check_opened(x->env, dir);
	if (!r)
		r = extend_file(x->env);
	if (!r)
		r = open_existing(x);
	if (r == INDEX_MISSING && create)
		r = create_tables(x);
	if (r)
		return r < 0 || r == INDEX_MISSING ? r : -EIO;
	x->whole = true;
	*ret = steal(x);
	return 0;
}

void index_distrust(struct index *x)
{
	x->whole = false;
}

void index_close(struct index *x)
{
	if (!x)
		return;
	mdb_txn_abort(x->idle);
	if (x->env)
		mdb_env_close(x->env);
	if (x->whole)
		index_seal(x->dir, x->checked_s);
	index_keys_deinit(&x->loose);
	close_keep(x->dir);
	pthread_mutex_destroy(&x->trees_lock);
	free(x);
}

int index_relax(struct index *x)
{
	return index_error(mdb_env_set_flags(x->env, MDB_NOSYNC, 1));
}

/* --- transactions --- */

int index_load_key(struct index_txn *t)
{
	uint8_t key = INDEX_META_TREE_KEY, algorithm;
	struct cursor c;
	int r;

	if (t->keyed)
		return 0;
	r = index_table_get(t, INDEX_TABLE_META, &key, 1, &c);
	if (r)
		return r == INDEX_ABSENT ? 0 : r;
	t->folder_id = get_u64(&c);
	algorithm = get_u8(&c);
	if (cursor_finish(&c) < 0 || !hash_algorithm_known(algorithm))
		return -EBADMSG;
	t->algorithm = algorithm;
	t->keyed = true;
	return 0;
}

static int load_counts(struct index_txn *t, struct index_counts *ret)
{
	struct index_counts n = {0};
	uint8_t key = INDEX_META_COUNTS;
	struct cursor c;
	int r = index_table_get(t, INDEX_TABLE_META, &key, 1, &c);

	if (r < 0)
		return r;
	if (!r) {
		n.live = get_u64(&c);
		n.tombstones = get_u64(&c);
		n.bytes = get_u64(&c);
		n.head_seq = get_u64(&c);
		n.purged_seq = get_u64(&c);
		r = cursor_finish(&c);
		if (r < 0)
			return r;
	}
	*ret = n;
	return 0;
}

static int store_counts(struct index_txn *w)
{
	uint8_t key = INDEX_META_COUNTS;

	if (!w->counts_dirty)
		return 0;
	index_scratch_begin(w);
	put_u64(&w->scratch, w->counts.live);
	put_u64(&w->scratch, w->counts.tombstones);
	put_u64(&w->scratch, w->counts.bytes);
	put_u64(&w->scratch, w->counts.head_seq);
	put_u64(&w->scratch, w->counts.purged_seq);
	return index_table_put(w, INDEX_TABLE_META, &key, 1);
}

static void txn_free(struct index_txn *t)
{
	buf_deinit(&t->scratch);
	index_keys_deinit(&t->touched[0]);
	index_keys_deinit(&t->touched[1]);
	free(t->released);
	free(t->trees);
	free(t);
}

/* Renewed, a transaction keeps its memory and its slot among the readers: half of what it costs to begin one. */
static int begin_read(struct index *x, MDB_txn **ret)
{
	MDB_txn *idle = atomic_exchange(&x->idle, NULL);
	int r, dead;

	if (idle && mdb_txn_renew(idle) == 0) {
		*ret = idle;
		return 0;
	}
	mdb_txn_abort(idle);
	r = index_error(mdb_txn_begin(x->env, NULL, MDB_RDONLY, ret));
	if (r == -EBUSY && !mdb_reader_check(x->env, &dead) && dead > 0)
		r = index_error(mdb_txn_begin(x->env, NULL, MDB_RDONLY, ret));
	return r;
}

static void end_read(struct index *x, MDB_txn *txn)
{
	MDB_txn *none = NULL;

	mdb_txn_reset(txn);
	if (!atomic_compare_exchange_strong(&x->idle, &none, txn))
		mdb_txn_abort(txn);
}

static int begin(struct index *x, bool write, struct index_txn **ret)
{
	struct index_txn *t = calloc(1, sizeof(*t));
	int r;

	if (!t)
		return -ENOMEM;
	t->x = x;
	t->write = write;
	r = write ? index_error(mdb_txn_begin(x->env, NULL, 0, &t->txn)) : begin_read(x, &t->txn);
	if (r) {
		txn_free(t);
		return r < 0 ? r : -EIO;
	}
	if (write)
		r = index_load_key(t);
	if (!r && write) {
		index_pack_begin(t);
		r = load_counts(t, &t->counts);
	}
	if (r) {
		index_abort(t);
		return r;
	}
	*ret = t;
	return 0;
}

int index_begin_read(struct index *x, struct index_txn **ret)
{
	return begin(x, false, ret);
}

int index_begin_write(struct index *x, struct index_txn **ret)
{
	return begin(x, true, ret);
}

int index_commit(struct index_txn **txn)
{
	struct index_txn *t = steal(*txn);
	int r;

	if (!t->write) {
		index_abort(t);
		return 0;
	}
	r = t->failed;
	if (!r)
		r = index_nodes_settle(t);
	if (!r)
		r = index_pack(t);
	if (!r)
		r = tree_update(t);
	if (!r)
		r = store_counts(t);
	if (r) {
		index_abort(t);
		return r < 0 ? r : -EIO;
	}
	r = index_error(mdb_txn_commit(t->txn));
	if (!r)
		index_trees_committed(t);
	txn_free(t);
	return r > 0 ? -EIO : r;
}

void index_abort(struct index_txn *txn)
{
	if (!txn)
		return;
	if (txn->write)
		mdb_txn_abort(txn->txn);
	else
		end_read(txn->x, txn->txn);
	txn_free(txn);
}

int index_set_key(struct index_txn *w, uint64_t folder_id, enum hash_algorithm algorithm)
{
	bool other_algorithm = w->keyed && w->algorithm != algorithm;
	bool other_id = w->keyed && w->folder_id != folder_id;
	uint8_t key = INDEX_META_TREE_KEY;
	int r;

	if (!hash_algorithm_known(algorithm))
		return -EINVAL;
	if (w->keyed && !other_algorithm && !other_id)
		return 0;
	index_scratch_begin(w);
	put_u64(&w->scratch, folder_id);
	put_u8(&w->scratch, algorithm);
	r = index_table_put(w, INDEX_TABLE_META, &key, 1);
	if (r)
		return r;
	w->keyed = true;
	w->folder_id = folder_id;
	w->algorithm = algorithm;
	if (other_algorithm)
		return index_rows_clear(w);
	return other_id ? tree_rebuild(w) : 0;
}

int index_counts(struct index_txn *t, struct index_counts *ret)
{
	if (!t->write)
		return load_counts(t, ret);
	*ret = t->counts;
	return 0;
}

/* --- meta --- */

int index_meta_get(struct index_txn *t, enum index_meta key, struct buf *ret)
{
	uint8_t k = (uint8_t)key;
	struct cursor c;
	int r = index_table_get(t, INDEX_TABLE_META, &k, 1, &c);

	if (r)
		return r;
	put_bytes(ret, c.p, cursor_left(&c));
	return buf_error(ret);
}

int index_meta_put(struct index_txn *w, enum index_meta key, const void *p, size_t n)
{
	uint8_t k = (uint8_t)key;

	if (key == INDEX_META_FORMAT || key == INDEX_META_PURGED_SEQ || k >= INDEX_META_TREE_KEY)
		return -EINVAL;
	index_scratch_begin(w);
	put_bytes(&w->scratch, p, n);
	return index_table_put(w, INDEX_TABLE_META, &k, 1);
}

/* --- intents --- */

#define INTENT_KEY_BYTES 12

static void intent_key(uint8_t *ret, uint64_t batch, uint32_t number)
{
	uint64_t b = htobe64(batch);
	uint32_t n = htobe32(number);

	memcpy(ret, &b, 8);
	memcpy(ret + 8, &n, 4);
}

static int intent_key_read(const MDB_val *key, uint64_t *ret_batch, uint32_t *ret_number)
{
	uint64_t b;
	uint32_t n;

	if (key->mv_size != INTENT_KEY_BYTES)
		return -EBADMSG;
	memcpy(&b, key->mv_data, 8);
	memcpy(&n, (const uint8_t *)key->mv_data + 8, 4);
	*ret_batch = be64toh(b);
	*ret_number = be32toh(n);
	return 0;
}

int index_intent_put(struct index_txn *w, uint64_t batch, uint32_t number, const void *p, size_t n)
{
	uint8_t key[INTENT_KEY_BYTES];

	intent_key(key, batch, number);
	index_scratch_begin(w);
	put_bytes(&w->scratch, p, n);
	return index_table_put(w, INDEX_TABLE_INTENTS, key, sizeof(key));
}

int index_intent_drop_batch(struct index_txn *w, uint64_t batch)
{
	MDB_cursor *c cleanup(index_table_cursor_close_p) = NULL;
	uint8_t from[INTENT_KEY_BYTES];
	MDB_val k = {sizeof(from), from}, v;
	uint64_t b;
	uint32_t number;
	int r;

	intent_key(from, batch, 0);
	r = index_table_cursor(w, INDEX_TABLE_INTENTS, &c);
	if (r)
		return r;
	while (!(r = index_error(mdb_cursor_get(c, &k, &v, MDB_SET_RANGE)))) {
		r = intent_key_read(&k, &b, &number);
		if (r)
			return r;
		if (b != batch)
			return 0;
		r = index_error(mdb_cursor_del(c, 0));
		if (r)
			return index_fail(w, r);
		k = (MDB_val){sizeof(from), from};
	}
	return r == INDEX_ABSENT ? 0 : r;
}

int index_intents(struct index_txn *t, index_intent_emit *emit, void *data)
{
	MDB_cursor *c cleanup(index_table_cursor_close_p) = NULL;
	struct cursor value;
	MDB_val k, v;
	uint64_t batch;
	uint32_t number;
	int r = index_table_cursor(t, INDEX_TABLE_INTENTS, &c);

	if (r)
		return r;
	while (!(r = index_error(mdb_cursor_get(c, &k, &v, MDB_NEXT)))) {
		r = index_value_open(&k, &v, &value);
		if (!r)
			r = intent_key_read(&k, &batch, &number);
		if (!r)
			r = emit(batch, number, value.p, cursor_left(&value), data);
		if (r)
			return r;
	}
	return r == INDEX_ABSENT ? 0 : r;
}

/* --- lineage --- */

int index_lineage_put(struct index_txn *w, const struct version_incarnation *i)
{
	MDB_cursor *c cleanup(index_table_cursor_close_p) = NULL;
	uint64_t position = 0, key;
	MDB_val k, v;
	int r = index_table_cursor(w, INDEX_TABLE_LINEAGE, &c);

	if (r)
		return r;
	r = index_error(mdb_cursor_get(c, &k, &v, MDB_LAST));
	if (r < 0)
		return r;
	if (!r) {
		if (k.mv_size != sizeof(key))
			return -EBADMSG;
		memcpy(&key, k.mv_data, sizeof(key));
		position = be64toh(key) + 1;
	}
	key = htobe64(position);
	index_scratch_begin(w);
	version_incarnation_put(&w->scratch, i);
	return index_table_put(w, INDEX_TABLE_LINEAGE, &key, sizeof(key));
}

int index_lineage_load(struct index_txn *t, struct version_lineage *ret)
{
	MDB_cursor *c cleanup(index_table_cursor_close_p) = NULL;
	struct version_incarnation i;
	struct cursor value;
	MDB_val k, v;
	int r = index_table_cursor(t, INDEX_TABLE_LINEAGE, &c);

	if (r)
		return r;
	while (!(r = index_error(mdb_cursor_get(c, &k, &v, MDB_NEXT)))) {
		r = index_value_open(&k, &v, &value);
		if (r)
			return r;
		version_incarnation_get(&value, &i);
		r = cursor_finish(&value);
		if (!r)
			r = version_lineage_add(ret, &i);
		if (r < 0)
			return r;
	}
	return r == INDEX_ABSENT ? 0 : r;
}
