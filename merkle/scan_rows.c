/*
 * merkle/scan_rows.c — the index read by directory, in short transactions. See scan_internal.h.
 *
 * While keys are plain, a directory's rows are one range, and each child's subtree is a range in it
 * that is stepped over with one seek. Paths from PATH_KEY_PREFIX bytes on may have cut keys, whose
 * order is not that of paths: all rows that share the prefix are then read into a zone and sorted
 * there. The zone stays for the walk below that prefix; what it says may be old, which the rows'
 * sequences show to whoever writes.
 */
#include "merkle/scan_internal.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"

#define WINDOW 256 /* children, or rows, per transaction */

DEFINE_CLEANUP(struct index_txn *, index_abort)
DEFINE_CLEANUP(struct index_cursor *, index_cursor_close)

static void window_clear(struct scan_window *w)
{
	for (size_t k = 0; k < w->n; k++) {
		free(w->v[k].name);
		row_deinit(&w->v[k].row);
	}
	w->n = w->at = 0;
}

void scan_window_deinit(struct scan_window *w)
{
	window_clear(w);
	free(w->v);
	*w = (struct scan_window){0};
}

static void rows_clear(struct scan_row *v, size_t n)
{
	for (size_t k = 0; k < n; k++) {
		free(v[k].path);
		row_deinit(&v[k].row);
	}
}

void scan_zone_deinit(struct scan_zone *z)
{
	rows_clear(z->v, z->n);
	free(z->v);
	*z = (struct scan_zone){0};
}

/* --- keys --- */

/* First key behind all that begin with this one's bytes. false: there is none. */
static bool key_behind(struct path_key *k)
{
	while (k->len && k->bytes[k->len - 1] == 0xff)
		k->len--;
	if (!k->len)
		return false;
	k->bytes[k->len - 1]++;
	return true;
}

/* First key that could be behind the subtree of a path with a plain key: '/' is 0, so that this is
 * path, 1. */
static void key_behind_subtree(struct path_key *k, const char *path, size_t n)
{
	char copy[PATH_KEY_PREFIX];

	assert(n < PATH_KEY_PREFIX);
	memcpy(copy, path, n);
	copy[n] = '\0';
	path_key(k, copy);
	k->bytes[k->len++] = 1;
}

/* The order of paths, for any length. */
static int path_compare(const char *a, const char *b)
{
	while (*a && *a == *b) {
		a++;
		b++;
	}
	if (!*a || !*b)
		return !!*a - !!*b;
	return (*a == '/' ? 0 : (uint8_t)*a) - (*b == '/' ? 0 : (uint8_t)*b);
}

static int compare_rows(const void *a, const void *b)
{
	return path_compare(((const struct scan_row *)a)->path, ((const struct scan_row *)b)->path);
}

/* --- zones --- */

static int zone_fill(struct scan_zone *z, struct index_txn *t, const struct path_key *prefix)
{
	struct index_cursor *c cleanup(index_cursor_close_p) = NULL;
	int r = index_cursor_open(t, &c);

	if (!r)
		r = index_cursor_seek_key(c, prefix);
	for (; !r; r = index_cursor_next(c)) {
		struct path_key key;

		r = array_reserve(&z->v, &z->cap, z->n + 1, sizeof(*z->v));
		if (r)
			return r;
		z->v[z->n] = (struct scan_row){0};
		r = index_cursor_get(c, &z->v[z->n].path, &z->v[z->n].row);
		if (r)
			break;
		z->n++;
		path_key(&key, z->v[z->n - 1].path);
		if (key.len < prefix->len || memcmp(key.bytes, prefix->bytes, prefix->len) != 0) {
			rows_clear(&z->v[--z->n], 1);
			return 0;
		}
	}
	return r < 0 ? r : 0;
}

/* The rows under the first PATH_KEY_PREFIX bytes of path. */
static int zone_load(struct scan_zone *z, struct index_txn *t, const char *path)
{
	struct path_key prefix;
	int r;

	path_key(&prefix, path);
	assert(prefix.len >= PATH_KEY_PREFIX);
	prefix.len = PATH_KEY_PREFIX;
	if (z->loaded && !memcmp(z->prefix, prefix.bytes, PATH_KEY_PREFIX))
		return 0;
	scan_zone_deinit(z);
	r = zone_fill(z, t, &prefix);
	if (r) {
		scan_zone_deinit(z);
		return r;
	}
	qsort(z->v, z->n, sizeof(*z->v), compare_rows);
	memcpy(z->prefix, prefix.bytes, PATH_KEY_PREFIX);
	z->loaded = true;
	return 0;
}

/* --- windows --- */

/* A row at or below a child of dir, in order: makes, or completes, the child's entry. Takes the row
 * if it is the child's. */
static int window_add(struct scan_window *w, size_t dir_n, const char *path, struct row *row)
{
	const char *name = path + (dir_n ? dir_n + 1 : 0);
	size_t n = strcspn(name, "/");
	struct scan_known *known = w->n ? &w->v[w->n - 1] : NULL;
	int r;

	if (!known || strncmp(known->name, name, n) != 0 || known->name[n]) {
		r = array_reserve(&w->v, &w->cap, w->n + 1, sizeof(*w->v));
		if (r)
			return r;
		known = &w->v[w->n];
		*known = (struct scan_known){.name = strndup(name, n)};
		if (!known->name)
			return -ENOMEM;
		w->n++;
	}
	if (!name[n]) {
		known->has_row = true;
		known->row = *row;
		*row = (struct row){0};
	}
	return 0;
}

static int window_add_zone(struct scan_window *w, const struct scan_zone *z, const char *dir)
{
	int r = 0;

	for (size_t k = 0; k < z->n && !r; k++) {
		struct row copy cleanup(row_deinit) = {0};

		if (!path_is_below(z->v[k].path, dir))
			continue;
		r = row_copy(&copy, &z->v[k].row);
		if (!r)
			r = window_add(w, strlen(dir), z->v[k].path, &copy);
	}
	return r;
}

/* dir's own key is short of PATH_KEY_PREFIX: what is below it comes next, from the key with '/' (0) behind it on. */
static int window_start(struct scan_window *w, struct index_cursor *c, const char *dir)
{
	if (!w->started) {
		path_key(&w->resume, dir);
		if (*dir)
			w->resume.bytes[w->resume.len++] = 0;
		w->started = true;
	}
	return index_cursor_seek_key(c, &w->resume);
}

/* One row: *ret_behind is what to go on with. 0; INDEX_ABSENT: no more below dir. */
static int window_step(struct scan_window *w, struct index_txn *t, struct index_cursor *c,
	struct scan_zone *zone, const char *dir, struct path_key *ret_behind)
{
	struct row row cleanup(row_deinit) = {0};
	cleanup_free char *path = NULL;
	size_t dir_n = strlen(dir), child_n;
	int r = index_cursor_get(c, &path, &row);

	if (r)
		return r;
	if (!path_is_below(path, dir))
		return INDEX_ABSENT;
	child_n = dir_n + (dir_n != 0);
	child_n += strcspn(path + child_n, "/");
	if (child_n < PATH_KEY_PREFIX) {
		key_behind_subtree(ret_behind, path, child_n);
		return window_add(w, dir_n, path, &row);
	}
	r = zone_load(zone, t, path);
	if (!r)
		r = window_add_zone(w, zone, dir);
	if (r)
		return r;
	path_key(ret_behind, path);
	ret_behind->len = PATH_KEY_PREFIX;
	return key_behind(ret_behind) ? 0 : INDEX_ABSENT;
}

static int window_fill(
	struct scan_window *w, struct index_txn *t, struct scan_zone *zone, const char *dir)
{
	struct index_cursor *c cleanup(index_cursor_close_p) = NULL;
	int r;

	if (strlen(dir) >= PATH_KEY_PREFIX) {
		w->ended = true;
		r = zone_load(zone, t, dir);
		return r ? r : window_add_zone(w, zone, dir);
	}
	r = index_cursor_open(t, &c);
	if (!r)
		r = window_start(w, c, dir);
	while (!r) {
		r = window_step(w, t, c, zone, dir, &w->resume);
		if (r || w->n >= WINDOW)
			break;
		r = index_cursor_forward(c, &w->resume);
	}
	if (r == INDEX_ABSENT) {
		w->ended = true;
		r = 0;
	}
	return r;
}

int scan_window_peek(struct scan_window *w, struct index *index, struct scan_zone *zone,
	const char *dir, struct scan_known **ret)
{
	struct index_txn *t cleanup(index_abort_p) = NULL;
	int r;

	if (w->at == w->n && !w->ended) {
		window_clear(w);
		r = index_begin_read(index, &t);
		if (!r)
			r = window_fill(w, t, zone, dir);
		if (r)
			return r;
	}
	*ret = w->at < w->n ? &w->v[w->at] : NULL;
	return 0;
}

int scan_window_single(struct scan_window *w, struct index *index, const char *path)
{
	struct index_txn *t cleanup(index_abort_p) = NULL;
	struct row row cleanup(row_deinit) = {0};
	int r = index_begin_read(index, &t);

	if (!r)
		r = index_get(t, path, &row);
	if (r < 0)
		return r;
	w->started = w->ended = true;
	if (r == INDEX_ABSENT) { /* below it there may be rows all the same */
		r = array_reserve(&w->v, &w->cap, 1, sizeof(*w->v));
		if (r)
			return r;
		w->v[0] = (struct scan_known){.name = strdup(path_name(path))};
		if (!w->v[0].name)
			return -ENOMEM;
		w->n = 1;
		return 0;
	}
	return window_add(w, path_parent_length(path), path, &row);
}

/* --- what is below --- */

struct batch {
	size_t n;
	struct scan_row v[WINDOW]; /* what is beyond n was never written */
};

static void batch_clear(struct batch *b)
{
	rows_clear(b->v, b->n);
	b->n = 0;
}

static void batch_free(struct batch *b)
{
	if (b)
		batch_clear(b);
	free(b);
}

DEFINE_CLEANUP(struct batch *, batch_free)

/* The rows below path that come after `after` (NULL: from the first). */
static int batch_fill(struct batch *b, struct index *index, const char *path, const char *after)
{
	struct index_txn *t cleanup(index_abort_p) = NULL;
	struct index_cursor *c cleanup(index_cursor_close_p) = NULL;
	int r = index_begin_read(index, &t);

	if (!r)
		r = index_cursor_open(t, &c);
	if (!r)
		r = index_cursor_seek(c, after ? after : path);
	for (; !r && b->n < WINDOW; r = index_cursor_next(c)) {
		struct scan_row *row = &b->v[b->n];

		*row = (struct scan_row){0};
		r = index_cursor_get(c, &row->path, &row->row);
		if (r)
			break;
		b->n++;
		if (!strcmp(row->path, after ? after : path))
			rows_clear(&b->v[--b->n], 1);
		else if (!path_is_below(row->path, path)) {
			rows_clear(&b->v[--b->n], 1);
			break;
		}
	}
	return r < 0 ? r : 0;
}

static int zone_below(struct index *index, struct scan_zone *zone, const char *path,
	scan_row_emit *emit, void *data)
{
	struct index_txn *t = NULL;
	int r = index_begin_read(index, &t);

	if (!r)
		r = zone_load(zone, t, path);
	index_abort(t);
	for (size_t k = 0; k < zone->n && !r; k++)
		if (path_is_below(zone->v[k].path, path))
			r = emit(zone->v[k].path, &zone->v[k].row, data);
	return r;
}

int scan_rows_below(struct index *index, struct scan_zone *zone, const char *path,
	scan_row_emit *emit, void *data)
{
	cleanup(batch_free_p) struct batch *b = NULL;
	cleanup_free char *after = NULL;
	int r = 0;

	if (strlen(path) >= PATH_KEY_PREFIX)
		return zone_below(index, zone, path, emit, data);
	b = malloc(sizeof(*b));
	if (!b)
		return -ENOMEM;
	b->n = 0;
	do {
		batch_clear(b);
		r = batch_fill(b, index, path, after);
		for (size_t k = 0; k < b->n && !r; k++)
			r = emit(b->v[k].path, &b->v[k].row, data);
		free(steal(after));
		if (!r && b->n) {
			after = strdup(b->v[b->n - 1].path);
			if (!after)
				return -ENOMEM;
		}
	} while (!r && b->n);
	return r;
}
