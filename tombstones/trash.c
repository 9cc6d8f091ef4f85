/*
 * tombstones/trash.c — see tombstones/trash.h.
 *
 * Invariants: everything is done by held descriptors and single names (base/file.h); a name that is taken in a bucket is
 * never renamed over; an entry's path in its bucket is the path it came from.
 *
 * Finding a bucket: the numbers of one day that have the path taken are mostly 0 … k without a gap. So the first free one is
 * galloped for (0, 1, 2, 4, …) and then searched by halves between a taken and a free one: a file that is rewritten
 * ten thousand times a day costs a dozen looks, not ten thousand.
 */
#include "tombstones/trash.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/random.h"

#define NUMBER_MAX UINT32_C(1000000000) /* of a day's bucket */
#define NS_PER_DAY (CLOCK_NS_PER_S * 86400)
#define BLOCK_BYTES 512
#define DEPTH_MAX (FILE_DEPTH_MAX + 8) /* of a walk: a little more than any path that was put here */
#define PLACE_TRIES 8

struct bucket {
	int64_t day; /* since 1970-01-01 */
	uint32_t number;
	char name[32];
};

/* --- names of buckets --- */

static int bucket_name(struct bucket *b)
{
	time_t s = (time_t)(b->day * 86400);
	struct tm tm;
	int n;

	if (!gmtime_r(&s, &tm))
		return -EOVERFLOW;
	n = snprintf(b->name, sizeof(b->name), "%04d-%02d-%02d", tm.tm_year + 1900, tm.tm_mon + 1, tm.tm_mday);
	if (b->number)
		snprintf(b->name + n, sizeof(b->name) - (size_t)n, ".%" PRIu32, b->number);
	return 0;
}

static int64_t day_of(int64_t ns)
{
	return ns >= 0 ? ns / NS_PER_DAY : -((-(ns + 1)) / NS_PER_DAY) - 1;
}

static int digits(const char **p, unsigned n, unsigned *ret)
{
	unsigned v = 0;

	while (n--) {
		if (**p < '0' || **p > '9')
			return -EINVAL;
		v = v * 10 + (unsigned)(*(*p)++ - '0');
	}
	*ret = v;
	return 0;
}

/* Only what bucket_name would write is a bucket: parsed, and written again to compare. */
static bool bucket_parse(const char *name, struct bucket *ret)
{
	struct bucket b = {0};
	unsigned year, month, day;
	const char *p = name;
	struct tm tm;

	if (digits(&p, 4, &year) || *p++ != '-' || digits(&p, 2, &month) || *p++ != '-' || digits(&p, 2, &day) || year < 1970)
		return false;
	tm = (struct tm){.tm_year = (int)year - 1900, .tm_mon = (int)month - 1, .tm_mday = (int)day};
	b.day = timegm(&tm) / 86400;
	if (*p == '.') {
		for (p++; *p >= '0' && *p <= '9' && b.number <= NUMBER_MAX / 10; p++)
			b.number = b.number * 10 + (uint32_t)(*p - '0');
		if (!b.number)
			return false;
	}
	if (*p || bucket_name(&b) || strcmp(b.name, name) != 0)
		return false;
	*ret = b;
	return true;
}

/* Newest first. */
static int compare_buckets(const void *x, const void *y)
{
	const struct bucket *a = x, *b = y;

	if (a->day != b->day)
		return a->day > b->day ? -1 : 1;
	return (a->number < b->number) - (a->number > b->number);
}

static int compare_names(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

/* All names of a directory, sorted: with what is below each, that is the order of paths. */
static int names_read(int dir, struct file_names *ret)
{
	int r = file_names_read(dir, ret);

	if (r)
		return r;
	if (ret->n)
		qsort(ret->v, ret->n, sizeof(*ret->v), compare_names);
	return 0;
}

/* *ret: heap, newest first. */
static int buckets_read(struct store *s, struct bucket **ret, size_t *ret_n)
{
	struct file_names names cleanup(file_names_deinit) = {0};
	struct bucket *v;
	size_t n = 0;
	int r = names_read(store_trash(s), &names);

	if (r && r != -ENOENT) /* all of it was removed: there is nothing in it */
		return r;
	v = calloc(names.n + 1, sizeof(*v));
	if (!v)
		return -ENOMEM;
	for (size_t i = 0; i < names.n; i++)
		n += bucket_parse(names.v[i], &v[n]);
	qsort(v, n, sizeof(*v), compare_buckets);
	*ret = v;
	*ret_n = n;
	return 0;
}

/* --- making room --- */

/* The directory of an entry in its bucket: 0, or FILE_VANISHED (nothing in the way), FILE_EXISTS (something is). */
static int look_parent(struct store *s, const char *bucket, const char *path, int *ret_dir, const char **ret_name)
{
	int dir cleanup_close = -1;
	char component[FILE_NAME_BYTES_MAX + 1];
	const char *slash;
	struct file_stat st;
	int r = file_open_directory_at(store_trash(s), bucket, &dir);

	if (r == FILE_VANISHED)
		return file_stat_at(store_trash(s), bucket, &st) == 0 ? FILE_EXISTS : FILE_VANISHED;
	while (!r && (slash = strchr(path, '/'))) {
		int next = -1;

		memcpy(component, path, (size_t)(slash - path));
		component[slash - path] = '\0';
		r = file_open_directory_at(dir, component, &next);
		if (r == FILE_VANISHED)
			return file_stat_at(dir, component, &st) == 0 ? FILE_EXISTS : FILE_VANISHED;
		if (!r) {
			close_keep(dir);
			dir = next;
			path = slash + 1;
		}
	}
	if (r)
		return r == FILE_OUTSIDE || r == FILE_DENIED ? FILE_EXISTS : r;
	*ret_dir = steal_fd(dir);
	*ret_name = path;
	return 0;
}

/* 1 taken, 0 free. */
static int is_taken(struct store *s, const struct bucket *b, const char *path)
{
	int dir cleanup_close = -1;
	struct file_stat st;
	const char *name;
	int r = look_parent(s, b->name, path, &dir, &name);

	if (!r)
		r = file_stat_at(dir, name, &st);
	if (r == FILE_VANISHED)
		return 0;
	return r < 0 ? r : 1;
}

static int taken_number(struct store *s, struct bucket *b, const char *path, uint32_t number)
{
	int r;

	b->number = number;
	r = bucket_name(b);
	return r ? r : is_taken(s, b, path);
}

/* A bucket of that day in which the path is free. */
static int find_free(struct store *s, const char *path, int64_t day, struct bucket *ret)
{
	uint32_t taken = 0, free_at = 0;
	struct bucket b = {.day = day};
	int r;

	while ((r = taken_number(s, &b, path, free_at)) == 1) {
		if (free_at >= NUMBER_MAX)
			return -EOVERFLOW;
		taken = free_at;
		free_at = free_at ? free_at * 2 : 1;
	}
	while (r >= 0 && free_at > taken + 1) {
		uint32_t middle = taken + (free_at - taken) / 2;

		r = taken_number(s, &b, path, middle);
		if (r == 1)
			taken = middle;
		else
			free_at = middle;
	}
	if (r < 0)
		return r;
	b.number = free_at;
	r = bucket_name(&b);
	if (!r)
		*ret = b;
	return r;
}

/* Open a directory for people's things, making it 0700 where it is not there. */
static int make_directory(int dir, const char *name, int *ret)
{
	int r = file_open_directory_at(dir, name, ret);

	if (r != FILE_VANISHED)
		return r;
	r = file_mkdir(dir, name, 0700);
	return r ? r : file_open_directory_at(dir, name, ret);
}

static int make_parent(struct store *s, const char *bucket, const char *path, int *ret_dir, const char **ret_name)
{
	int dir cleanup_close = -1;
	char component[FILE_NAME_BYTES_MAX + 1];
	const char *slash;
	int r = make_directory(store_trash(s), bucket, &dir);

	if (r == FILE_VANISHED && store_renew_trash(s) == 0) /* all of it was removed */
		r = make_directory(store_trash(s), bucket, &dir);
	while (!r && (slash = strchr(path, '/'))) {
		int next = -1;

		memcpy(component, path, (size_t)(slash - path));
		component[slash - path] = '\0';
		r = make_directory(dir, component, &next);
		if (!r) {
			close_keep(dir);
			dir = next;
			path = slash + 1;
		}
	}
	if (r)
		return r;
	*ret_dir = steal_fd(dir);
	*ret_name = path;
	return 0;
}

int trash_place(struct store *s, const char *path, int64_t now_ns, int *ret_dir, const char **ret_name, char **ret_bucket)
{
	cleanup_free char *bucket = NULL;
	struct bucket b;
	int r;

	if (!path_valid(path))
		return -EINVAL;
	r = find_free(s, path, day_of(now_ns < 0 ? 0 : now_ns), &b);
	if (r)
		return r;
	bucket = strdup(b.name);
	if (!bucket)
		return -ENOMEM;
	r = make_parent(s, b.name, path, ret_dir, ret_name);
	if (!r)
		*ret_bucket = steal(bucket);
	return r;
}

/* Nobody else writes in trash: where the file system has no RENAME_NOREPLACE, having looked is enough. */
static int move_in(int dir, const char *name, int trash, const char *trash_name)
{
	int r = file_rename_noreplace(dir, name, trash, trash_name);
	struct file_stat st;

	if (r != FILE_UNSUPPORTED)
		return r;
	r = file_stat_at(trash, trash_name, &st);
	if (r != FILE_VANISHED)
		return r ? r : FILE_EXISTS;
	return file_rename_replace(dir, name, trash, trash_name);
}

static int check_kind(const struct file_stat *st)
{
	if (st->kind == FILE_KIND_DIRECTORY)
		return FILE_IS_DIRECTORY;
	return st->kind == FILE_KIND_OTHER ? FILE_UNSUPPORTED : 0;
}

int trash_put(struct store *s, int dir, const char *name, const char *path, int64_t now_ns, char **ret_bucket)
{
	struct file_stat st;
	int r;

	if (!path_valid(path))
		return -EINVAL;
	for (int tries = 0;; tries++) {
		int trash cleanup_close = -1;
		cleanup_free char *bucket = NULL;
		const char *trash_name;

		r = file_stat_at(dir, name, &st);
		if (!r)
			r = check_kind(&st);
		if (!r)
			r = trash_place(s, path, now_ns, &trash, &trash_name, &bucket);
		if (r)
			return r;
		r = move_in(dir, name, trash, trash_name);
		if (!r && ret_bucket)
			*ret_bucket = steal(bucket);
		if ((r != FILE_EXISTS && r != FILE_VANISHED) || tries >= PLACE_TRIES)
			return r;
	}
}

/* --- walking --- */

/* Called for each thing that is no directory, with its directory. Non-zero stops. */
typedef int walk_entry(int dir, const char *name, const char *path, const struct file_stat *st, void *data);

struct walk {
	walk_entry *entry;
	void *data;
	bool tidy; /* remove directories that are empty afterwards */
};

static int walk_directory(const struct walk *w, int dir, const char *path, unsigned depth);

static int walk_name(const struct walk *w, int dir, const char *path, const char *name, unsigned depth)
{
	cleanup_free char *below = path_join(path, name);
	int child cleanup_close = -1;
	struct file_stat st;
	int r;

	if (!below)
		return -ENOMEM;
	r = file_stat_at(dir, name, &st);
	if (r == FILE_VANISHED || r == FILE_OUTSIDE)
		return 0;
	if (r)
		return r;
	if (st.kind != FILE_KIND_DIRECTORY)
		return w->entry(dir, name, below, &st, w->data);
	if (depth >= DEPTH_MAX)
		return 0;
	r = file_open_directory_at(dir, name, &child);
	if (r)
		return r < 0 ? r : 0;
	r = walk_directory(w, child, below, depth + 1);
	if (!r && w->tidy) {
		r = file_rmdir(dir, name);
		r = r < 0 ? r : 0;
	}
	return r;
}

/* Recursive: a level holds one descriptor and a sorted list of names; paths are at most FILE_DEPTH_MAX deep. */
static int walk_directory(const struct walk *w, int dir, const char *path, unsigned depth)
{
	struct file_names names cleanup(file_names_deinit) = {0};
	int r = names_read(dir, &names);

	if (r)
		return r == -ENOENT || r > 0 ? 0 : r;
	for (size_t i = 0; i < names.n && !r; i++)
		r = walk_name(w, dir, path, names.v[i], depth);
	return r;
}

static int walk_bucket(struct store *s, const struct walk *w, const struct bucket *b)
{
	int dir cleanup_close = -1;
	int r = file_open_directory_at(store_trash(s), b->name, &dir);

	if (r)
		return r < 0 ? r : 0;
	r = walk_directory(w, dir, "", 0);
	if (!r && w->tidy) {
		r = file_rmdir(store_trash(s), b->name);
		r = r < 0 ? r : 0;
	}
	return r;
}

struct list {
	int (*emit)(const struct trash_entry *e, void *data);
	void *data;
	const char *bucket;
};

static int list_entry(int dir, const char *name, const char *path, const struct file_stat *st, void *data)
{
	const struct list *l = data;
	struct trash_entry e = {.bucket = l->bucket, .path = path, .stat = *st};

	(void)dir;
	(void)name;
	return l->emit(&e, l->data);
}

int trash_list(struct store *s, int (*emit)(const struct trash_entry *e, void *data), void *data)
{
	cleanup_free struct bucket *buckets = NULL;
	struct list l = {.emit = emit, .data = data};
	struct walk w = {.entry = list_entry, .data = &l};
	size_t n;
	int r = buckets_read(s, &buckets, &n);

	for (size_t i = 0; !r && i < n; i++) {
		l.bucket = buckets[i].name;
		r = walk_bucket(s, &w, &buckets[i]);
	}
	return r;
}

/* --- putting back --- */

/* The bucket's entry of that path. FILE_VANISHED. */
static int find_entry(struct store *s, const char *bucket, const char *path, int *ret_dir, const char **ret_name,
	struct file_stat *ret)
{
	int dir cleanup_close = -1;
	int r = look_parent(s, bucket, path, &dir, ret_name);

	if (!r)
		r = file_stat_at(dir, *ret_name, ret);
	if (r)
		return r < 0 ? r : FILE_VANISHED;
	if (check_kind(ret))
		return FILE_VANISHED;
	*ret_dir = steal_fd(dir);
	return 0;
}

/* Of the newest day that has the path, the bucket where it was put last. */
static int find_newest(struct store *s, const char *path, struct bucket *ret)
{
	cleanup_free struct bucket *buckets = NULL;
	const struct bucket *found = NULL;
	int64_t put_ns = 0;
	size_t n = 0;
	int r = buckets_read(s, &buckets, &n);

	for (size_t i = 0; r >= 0 && i < n && (!found || found->day == buckets[i].day); i++) {
		int dir cleanup_close = -1;
		struct file_stat st;
		const char *name;

		r = find_entry(s, buckets[i].name, path, &dir, &name, &st);
		if (!r && (!found || st.ctime_ns > put_ns)) {
			found = &buckets[i];
			put_ns = st.ctime_ns;
		}
	}
	if (r < 0)
		return r;
	if (!found)
		return FILE_VANISHED;
	*ret = *found;
	return 0;
}

/*
 * Make a directory of people's tree: like the one it is in, whoever we are. It is made ready in staging, where nobody else
 * can swap it for another directory between making and changing its owner.
 */
static int make_like_parent(struct store *s, int dir, const char *name)
{
	char temporary[32];
	int made cleanup_close = -1;
	struct file_stat st;
	int r;

	snprintf(temporary, sizeof(temporary), "restore-%016" PRIx64, random_id());
	r = file_stat_fd(dir, &st);
	if (!r)
		r = file_mkdir(store_staging(s), temporary, 0700);
	if (!r)
		r = file_open_directory_at(store_staging(s), temporary, &made);
	if (r)
		return r;
	r = file_chown_fd(made, st.uid, st.gid);
	if (!r || r == FILE_DENIED || r == FILE_UNSUPPORTED)
		r = file_chmod_fd(made, st.mode & 02777);
	if (!r || r == FILE_DENIED || r == FILE_UNSUPPORTED)
		r = file_rename_noreplace(store_staging(s), temporary, dir, name);
	if (r == FILE_UNSUPPORTED) { /* mkdir replaces nothing either */
		r = file_mkdir(dir, name, 0755);
		file_rmdir(store_staging(s), temporary);
	} else if (r) {
		file_rmdir(store_staging(s), temporary);
	}
	return r == FILE_EXISTS ? 0 : r;
}

/* FILE_VANISHED where a directory on the way is not there and can't be made. */
static int make_target(struct store *s, const char *path, int *ret_dir, const char **ret_name)
{
	int dir cleanup_close = -1;
	char component[FILE_NAME_BYTES_MAX + 1];
	const char *slash;
	int r = file_open_directory_at(store_root(s), "", &dir);

	while (!r && (slash = strchr(path, '/'))) {
		int next = -1;

		memcpy(component, path, (size_t)(slash - path));
		component[slash - path] = '\0';
		r = file_open_directory_at(dir, component, &next);
		if (r == FILE_VANISHED) {
			r = make_like_parent(s, dir, component);
			if (!r)
				r = file_open_directory_at(dir, component, &next);
		}
		if (!r) {
			close_keep(dir);
			dir = next;
			path = slash + 1;
		}
	}
	if (r)
		return r < 0 ? r : FILE_VANISHED;
	*ret_dir = steal_fd(dir);
	*ret_name = path;
	return 0;
}

/* Replaces nothing. Without RENAME_NOREPLACE: a second name, then the first goes. */
static int move_out(int trash, const char *trash_name, int dir, const char *name)
{
	int r = file_rename_noreplace(trash, trash_name, dir, name);

	if (r != FILE_UNSUPPORTED)
		return r;
	r = file_link(trash, trash_name, dir, name);
	return r ? r : file_unlink(trash, trash_name);
}

/* Remove the directories of an entry that left its bucket, as far as they are empty. */
static void tidy(struct store *s, const char *bucket, const char *path)
{
	int root cleanup_close = -1;
	cleanup_free char *prefix = strdup(path);
	size_t n;

	if (!prefix || file_open_directory_at(store_trash(s), bucket, &root))
		return;
	while ((n = path_parent_length(prefix))) {
		int dir cleanup_close = -1;
		const char *name;

		prefix[n] = '\0';
		if (file_open_parent(root, prefix, &dir, &name) || file_rmdir(dir, name))
			return;
	}
	file_rmdir(store_trash(s), bucket);
}

int trash_restore(struct store *s, const char *path, const char *bucket, char **ret_bucket)
{
	int trash cleanup_close = -1, dir cleanup_close = -1;
	cleanup_free char *where = NULL;
	const char *trash_name, *name;
	struct file_stat st;
	struct bucket b;
	int r = 0;

	if (!path_valid(path) || (bucket && !bucket_parse(bucket, &b)))
		return -EINVAL;
	if (!bucket)
		r = find_newest(s, path, &b);
	if (!r)
		r = find_entry(s, b.name, path, &trash, &trash_name, &st);
	if (!r && !(where = strdup(b.name)))
		r = -ENOMEM;
	if (!r)
		r = make_target(s, path, &dir, &name);
	if (!r)
		r = move_out(trash, trash_name, dir, name);
	if (r)
		return r;
	r = file_fsync(dir);
	tidy(s, b.name, path);
	if (r < 0)
		return r;
	if (ret_bucket)
		*ret_bucket = steal(where);
	return 0;
}

/* --- aging --- */

struct expire {
	uint64_t removed; /* bytes */
	int error;	  /* first reason why something was left */
};

static uint64_t bytes_of(const struct file_stat *st)
{
	return st->nlink > 1 ? 0 : st->blocks * BLOCK_BYTES;
}

static int remove_entry(int dir, const char *name, const char *path, const struct file_stat *st, void *data)
{
	struct expire *x = data;
	int r = file_unlink(dir, name);

	(void)path;
	if (!r)
		x->removed += bytes_of(st);
	else if (r != FILE_VANISHED && !x->error)
		x->error = r;
	return 0;
}

static int add_bytes(int dir, const char *name, const char *path, const struct file_stat *st, void *data)
{
	uint64_t *total = data;

	(void)dir;
	(void)name;
	(void)path;
	*total += bytes_of(st);
	return 0;
}

struct aged {
	const struct bucket *bucket;
	char *path; /* owned */
	int64_t put_ns;
	uint64_t bytes;
};

struct aged_list {
	const struct bucket *bucket; /* being walked */
	struct aged *v;
	size_t n, cap;
};

static void aged_list_deinit(struct aged_list *l)
{
	for (size_t i = 0; i < l->n; i++)
		free(l->v[i].path);
	free(l->v);
	*l = (struct aged_list){0};
}

static int add_aged(int dir, const char *name, const char *path, const struct file_stat *st, void *data)
{
	struct aged_list *l = data;
	int r = array_reserve(&l->v, &l->cap, l->n + 1, sizeof(*l->v));
	char *copy;

	(void)dir;
	(void)name;
	if (r)
		return r;
	copy = strdup(path);
	if (!copy)
		return -ENOMEM;
	l->v[l->n++] = (struct aged){.bucket = l->bucket, .path = copy, .put_ns = st->ctime_ns, .bytes = bytes_of(st)};
	return 0;
}

static int compare_aged(const void *x, const void *y)
{
	const struct aged *a = x, *b = y;

	return (a->put_ns > b->put_ns) - (a->put_ns < b->put_ns);
}

static void evict(struct store *s, const struct aged *a, struct expire *x)
{
	int dir cleanup_close = -1;
	struct file_stat st;
	const char *name;
	int r = find_entry(s, a->bucket->name, a->path, &dir, &name, &st);

	if (!r)
		r = file_unlink(dir, name);
	if (!r) {
		x->removed += a->bytes;
		tidy(s, a->bucket->name, a->path);
	} else if (r != FILE_VANISHED && !x->error) {
		x->error = r;
	}
}

/* Remove the oldest of one day's buckets until `surplus` is gone. Only one day's entries are held in memory. */
static int evict_day(struct store *s, const struct bucket *buckets, size_t n, uint64_t surplus, struct expire *x)
{
	struct aged_list l cleanup(aged_list_deinit) = {0};
	struct walk w = {.entry = add_aged, .data = &l};
	uint64_t before = x->removed;
	int r = 0;

	for (size_t i = 0; i < n && !r; i++) {
		l.bucket = &buckets[i];
		r = walk_bucket(s, &w, &buckets[i]);
	}
	if (r)
		return r;
	if (l.n)
		qsort(l.v, l.n, sizeof(*l.v), compare_aged);
	for (size_t i = 0; i < l.n && x->removed - before < surplus; i++)
		evict(s, &l.v[i], x);
	return 0;
}

static int evict_beyond(struct store *s, const struct bucket *buckets, size_t n, uint64_t max_bytes, struct expire *x)
{
	uint64_t total = 0;
	struct walk w = {.entry = add_bytes, .data = &total};
	int r = 0;

	for (size_t i = 0; i < n && !r; i++)
		r = walk_bucket(s, &w, &buckets[i]);
	while (!r && n && total > max_bytes) {
		uint64_t before = x->removed;
		size_t from = n - 1;

		while (from > 0 && buckets[from - 1].day == buckets[n - 1].day)
			from--;
		r = evict_day(s, buckets + from, n - from, total - max_bytes, x);
		total -= x->removed - before < total ? x->removed - before : total;
		n = from;
	}
	return r;
}

/* Is even the last moment of that day too long ago? */
static bool is_expired(const struct bucket *b, int64_t now_ns, int64_t keep_ns)
{
	return keep_ns >= 0 && now_ns > keep_ns && b->day + 1 <= day_of(now_ns - keep_ns);
}

int trash_expire(struct store *s, int64_t now_ns, int64_t keep_ns, uint64_t max_bytes, uint64_t *ret_removed_bytes)
{
	cleanup_free struct bucket *buckets = NULL;
	struct expire x = {0};
	struct walk w = {.entry = remove_entry, .data = &x, .tidy = true};
	size_t n = 0;
	int r = buckets_read(s, &buckets, &n);

	while (!r && n && is_expired(&buckets[n - 1], now_ns, keep_ns))
		r = walk_bucket(s, &w, &buckets[--n]);
	if (!r && max_bytes)
		r = evict_beyond(s, buckets, n, max_bytes, &x);
	if (ret_removed_bytes)
		*ret_removed_bytes = x.removed;
	return r ? r : x.error;
}

int trash_make_room(struct store *s, uint64_t bytes, uint64_t *ret_removed_bytes)
{
	cleanup_free struct bucket *buckets = NULL;
	struct expire x = {0};
	size_t n = 0;
	int r = buckets_read(s, &buckets, &n);

	while (!r && n && x.removed < bytes) {
		size_t from = n - 1;

		while (from > 0 && buckets[from - 1].day == buckets[n - 1].day)
			from--;
		r = evict_day(s, buckets + from, n - from, bytes - x.removed, &x);
		n = from;
	}
	*ret_removed_bytes = x.removed;
	return r ? r : x.error;
}
