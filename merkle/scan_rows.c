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
	for (size_t k = 0; k < w->n; k++)
		free(w->v[k].row.target);
	buf_clear(&w->names);
	w->n = w->at = 0;
}

void scan_window_deinit(struct scan_window *w)
{
	window_clear(w);
	free(w->v);
	buf_deinit(&w->names);
	*w = (struct scan_window){0};
}

static void rows_clear(struct scan_row *v, size_t n)
{
	for (size_t k = 0; k < n; k++) {
		free(v[k].path);
		row_brief_deinit(&v[k].row);
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

/* First key that could be behind the subtree of the path with the plain key of a key's first n bytes: '/' is 0, so that this is
 * path, 1. */
static void key_behind_subtree(struct path_key *k, const struct path_key *path, size_t n)
{
	assert(n < PATH_KEY_PREFIX);
	memcpy(k->bytes, path->bytes, n);
	k->bytes[n] = 1;
	k->len = (uint16_t)(n + 1);
}

static bool key_begins(const struct path_key *k, const struct path_key *prefix)
{
	return k->len >= prefix->len && !memcmp(k->bytes, prefix->bytes, prefix->len);
}

/* Where the name of the child of dir ends, at or above which a row with this key is; PATH_KEY_PREFIX: beyond that, perhaps. */
static size_t child_end(const struct path_key *k, size_t from)
{
	size_t end = k->len < PATH_KEY_PREFIX ? k->len : PATH_KEY_PREFIX;
	const uint8_t *slash = memchr(k->bytes + from, 0, end - from);

	return slash ? (size_t)(slash - k->bytes) : end;
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

/* The row under the cursor. */
static int read_row(struct index_cursor *c, struct scan_row *ret)
{
	cleanup_free char *path = NULL;
	int r = index_cursor_get(c, &path, NULL);

	if (!r)
		r = index_cursor_brief(c, &ret->row);
	if (!r)
		ret->path = steal(path);
	return r;
}

static int zone_fill(struct scan_zone *z, struct index_txn *t, const struct path_key *prefix)
{
	struct index_cursor *c cleanup(index_cursor_close_p) = NULL;
	int r = index_cursor_open(t, &c);

	if (!r)
		r = index_cursor_seek_key(c, prefix);
	for (; !r && key_begins(index_cursor_key(c), prefix); r = index_cursor_next(c)) {
		r = array_reserve(&z->v, &z->cap, z->n + 1, sizeof(*z->v));
		if (!r)
			r = read_row(c, &z->v[z->n]);
		if (r)
			return r;
		z->n++;
	}
	return r < 0 ? r : 0;
}

/* The rows under the first PATH_KEY_PREFIX bytes of a key. */
static int zone_load(struct scan_zone *z, struct index_txn *t, const struct path_key *key)
{
	struct path_key prefix = *key;
	int r;

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
	if (z->n)
		qsort(z->v, z->n, sizeof(*z->v), compare_rows);
	memcpy(z->prefix, prefix.bytes, PATH_KEY_PREFIX);
	z->loaded = true;
	return 0;
}

/* --- windows --- */

const char *scan_window_name(const struct scan_window *w, const struct scan_known *known)
{
	return (const char *)w->names.data + known->name;
}

/* Something at or below the child of that name, in order: *ret is the child's entry, perhaps a new one. */
static int window_child(struct scan_window *w, const char *name, size_t n, struct scan_known **ret)
{
	const char *last = w->n ? scan_window_name(w, &w->v[w->n - 1]) : "";
	int r;

	if (strncmp(last, name, n) != 0 || last[n]) {
		r = array_reserve(&w->v, &w->cap, w->n + 1, sizeof(*w->v));
		if (r)
			return r;
		w->v[w->n++] = (struct scan_known){.name = w->names.len};
		put_bytes(&w->names, name, n);
		put_u8(&w->names, 0);
	}
	*ret = &w->v[w->n - 1];
	return buf_error(&w->names);
}

static int window_add_zone(struct scan_window *w, const struct scan_zone *z, const char *dir)
{
	int r = 0;

	for (size_t k = 0; k < z->n && !r; k++) {
		const struct scan_row *row = &z->v[k];
		struct scan_known *known;
		const char *name;
		size_t n;

		if (!path_is_below(row->path, dir))
			continue;
		name = row->path + (*dir ? strlen(dir) + 1 : 0);
		n = strcspn(name, "/");
		r = window_child(w, name, n, &known);
		if (!r && !name[n]) {
			known->has_row = true;
			r = row_brief_copy(&known->row, &row->row);
		}
	}
	return r;
}

/* The row under the cursor, below dir, whose key with '/' (0) behind it is `below`: w->resume is what to go on with.
 * INDEX_ABSENT: nothing is behind. */
static int window_step(struct scan_window *w, struct index_txn *t, struct index_cursor *c,
	struct scan_zone *zone, const char *dir, const struct path_key *below)
{
	const struct path_key *key = index_cursor_key(c);
	size_t end = child_end(key, below->len);
	struct scan_known *known;
	int r;

	if (end < PATH_KEY_PREFIX) {
		if (end == below->len)
			return -EBADMSG; /* a name of no bytes */
		key_behind_subtree(&w->resume, key, end);
		r = window_child(w, (const char *)key->bytes + below->len, end - below->len, &known);
		if (r || end < key->len)
			return r;
		known->has_row = true;
		return index_cursor_brief(c, &known->row);
	}
	w->resume = *key;
	w->resume.len = PATH_KEY_PREFIX;
	r = zone_load(zone, t, key);
	if (!r)
		r = window_add_zone(w, zone, dir);
	return r ? r : key_behind(&w->resume) ? 0 : INDEX_ABSENT;
}

/* A dir whose own key is short of PATH_KEY_PREFIX: what is below it comes next, from the key with '/' (0) behind it on. */
static int window_read(struct scan_window *w, struct index_txn *t, struct scan_zone *zone, const char *dir)
{
	struct index_cursor *c cleanup(index_cursor_close_p) = NULL;
	struct path_key below;
	int r = index_cursor_open(t, &c);

	path_key(&below, dir);
	if (*dir)
		below.bytes[below.len++] = 0;
	if (!w->started)
		w->resume = below;
	w->started = true;
	if (!r)
		r = index_cursor_seek_key(c, &w->resume);
	while (!r && key_begins(index_cursor_key(c), &below)) {
		r = window_step(w, t, c, zone, dir, &below);
		if (r || w->n >= WINDOW)
			return r;
		r = index_cursor_forward(c, &w->resume);
	}
	return r ? r : INDEX_ABSENT;
}

static int window_fill(
	struct scan_window *w, struct index_txn *t, struct scan_zone *zone, const char *dir)
{
	struct path_key key;
	int r;

	path_key(&key, dir);
	if (key.len >= PATH_KEY_PREFIX) {
		w->ended = true;
		r = zone_load(zone, t, &key);
		return r ? r : window_add_zone(w, zone, dir);
	}
	r = window_read(w, t, zone, dir);
	w->ended = r == INDEX_ABSENT;
	return w->ended ? 0 : r;
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
	struct index_cursor *c cleanup(index_cursor_close_p) = NULL;
	struct index_txn *t cleanup(index_abort_p) = NULL;
	const char *name = path_name(path);
	struct scan_known *known;
	struct path_key key;
	bool there;
	int r = index_begin_read(index, &t);

	path_key(&key, path);
	if (!r)
		r = index_cursor_open(t, &c);
	if (!r)
		r = index_cursor_seek_key(c, &key);
	if (r < 0)
		return r;
	w->started = w->ended = true;
	there = r == 0 && path_key_compare(index_cursor_key(c), &key) == 0; /* else there may be rows below it all the same */
	r = window_child(w, name, strlen(name), &known);
	if (r || !there)
		return r;
	known->has_row = true;
	return index_cursor_brief(c, &known->row);
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

		r = read_row(c, row);
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
	struct path_key key;
	int r = index_begin_read(index, &t);

	path_key(&key, path);
	if (!r)
		r = zone_load(zone, t, &key);
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
