/*
 * merkle/index_pack.c — rows that were written out of order stand close together all the same.
 *
 * LMDB fills pages to their end only where keys are appended in ascending order, as a first scan does. The walks of a session go
 * the other way, and when two copies meet, all rows grow a little: each full page is split in halves that stay half empty, which
 * makes an index nearly twice as large. So where a transaction made many more pages than its rows need, the next one that puts many takes
 * these out, and puts them in again in ascending order: below them there are other rows by then, behind whose last page new ones are
 * begun, and filled. What is freed is used by those that follow.
 *
 * What waits is in memory only: where the process ends before, rows stand less close. Nothing else depends on it.
 */
#include <stdlib.h>
#include <string.h>

#include "merkle/index_internal.h"

#define ROWS_MIN 128 /* fewer are not worth it; of those, so many next to each other */
#define RUN_MIN 32
#define PAGE_BYTES 4096

static size_t live_pages(const struct index_txn *w)
{
	MDB_stat s = {0};

	(void)mdb_stat(w->txn, w->x->dbi[INDEX_TABLE_LIVE], &s);
	return s.ms_leaf_pages;
}

void index_pack_begin(struct index_txn *w)
{
	w->live_pages = live_pages(w);
}

/* Rows next to each other, out and in again. `values`: each as 4 bytes of length, and bytes. What stands behind them begins a page: else
 * that page would take in each of them before what it has, and split in halves again. */
static int rewrite(struct index_txn *w, const struct index_keys *keys, size_t from, size_t to, const struct buf *values)
{
	const MDB_dbi dbi = w->x->dbi[INDEX_TABLE_LIVE];
	struct cursor c = cursor_over(values->data, values->len);
	MDB_val key, value;
	int r = 0;

	for (size_t i = from; !r && i < to; i++) {
		key.mv_data = (void *)index_keys_at(keys, i, &key.mv_size);
		r = index_error(mdb_del(w->txn, dbi, &key, NULL));
	}
	for (size_t i = from; !r && i < to; i++) {
		key.mv_data = (void *)index_keys_at(keys, i, &key.mv_size);
		value.mv_size = get_u32(&c);
		value.mv_data = (void *)cursor_step(&c, value.mv_size);
		r = index_error(mdb_put(w->txn, dbi, &key, &value, 0));
	}
	return r > 0 ? -EIO : r;
}

/* Do these two stand in different pages, as far as can be told? */
static bool apart(const MDB_val *a, const MDB_val *b)
{
	ptrdiff_t between = (const char *)a->mv_data - (const char *)b->mv_data;

	return between >= PAGE_BYTES || between <= -PAGE_BYTES;
}

/* From the key at `from` on: those that stand next to each other in the table. *ret_to: behind the last of them; *ret_pages: behind the
 * last one with which a page ends, or `from`. */
static int read_run(MDB_cursor *c, const struct index_keys *keys, size_t from, struct buf *values, size_t *ret_pages, size_t *ret_to)
{
	MDB_val key, value, last;
	size_t n, i = from;
	const uint8_t *p = index_keys_at(keys, i, &n);
	int r;

	*ret_pages = from;
	key = (MDB_val){n, (void *)p};
	r = index_error(mdb_cursor_get(c, &key, &value, MDB_SET_KEY));
	while (!r && p && !index_key_compare(key.mv_data, key.mv_size, p, n)) {
		put_u32(values, (uint32_t)value.mv_size);
		put_bytes(values, value.mv_data, value.mv_size);
		last = value;
		p = ++i < keys->n ? index_keys_at(keys, i, &n) : NULL;
		r = index_error(mdb_cursor_get(c, &key, &value, MDB_NEXT));
		if (r == INDEX_ABSENT || (!r && apart(&last, &value)))
			*ret_pages = i;
	}
	*ret_to = i;
	return r < 0 ? r : buf_error(values);
}

static int pack(struct index_txn *w, const struct index_keys *keys)
{
	struct buf values = BUF_INIT;
	size_t from = 0, to = 0, pages = 0;
	int r = 0;

	for (; !r && from < keys->n; from = to > from ? to : from + 1) {
		MDB_cursor *c = NULL;

		buf_clear(&values);
		r = index_table_cursor(w, INDEX_TABLE_LIVE, &c);
		if (!r)
			r = read_run(c, keys, from, &values, &pages, &to);
		index_table_cursor_close(c);
		if (!r && pages >= from + RUN_MIN)
			r = rewrite(w, keys, from, pages, &values);
	}
	buf_deinit(&values);
	return r ? index_fail(w, r) : 0;
}

int index_pack(struct index_txn *w)
{
	struct index_keys before = w->x->loose, *touched = &w->touched[TREE_LIVE];
	int64_t made = ((int64_t)live_pages(w) - (int64_t)w->live_pages) * PAGE_BYTES;
	int r = 0;

	if (touched->n < ROWS_MIN)
		return 0;
	w->x->loose = (struct index_keys){0};
	if (made > w->live_grown + w->live_put / 4) {
		index_keys_sort(touched);
		r = index_keys_copy(&w->x->loose, touched);
	}
	if (!r && before.n)
		r = pack(w, &before);
	index_keys_deinit(&before);
	return r;
}
