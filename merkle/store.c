/*
 * merkle/store.c — opening and closing a replica's store, and its index, which may have to be rebuilt; see merkle/store.h.
 */
#include "merkle/store_internal.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/defect.h"
#include "base/error.h"

#define MOUNT_VERSION 1

DEFINE_CLEANUP(struct store *, store_close)

/* --- the index --- */

/* Only while the index is closed: closing a descriptor of lock.mdb takes LMDB's locks away. Where symlinks are none, there is one. */
static int give_index(const struct store *s, int dir)
{
	static const char *const names[] = {"data.mdb", "lock.mdb"};
	struct file_stat st;
	int r = 0;

	for (size_t k = 0; k < ARRAY_SIZE(names) && !r; k++) {
		cleanup_close int fd = -1;

		r = file_open_write(dir, names[k], &fd);
		if (r == FILE_VANISHED && k)
			return 0;
		if (!r)
			r = file_stat_fd(fd, &st);
		if (!r && !st.uid && st.nlink == 1)
			r = store_give(s, fd);
	}
	return store_refused(r);
}

static int open_index_in(struct store *s, bool create)
{
	int r, dir = s->index_dir;

	r = index_open(&s->index, dir, false);
	if (r == INDEX_MISSING && create) {
		r = index_open(&s->index, dir, true);
		if (!r && !geteuid() && s->root_stat.uid) {
			index_close(steal(s->index));
			r = give_index(s, dir);
			if (r)
				return r;
			r = index_open(&s->index, dir, false);
		}
		if (!r) /* what is committed lies under a name that must not go */
			r = store_sync_directory(dir);
	}
	return r == INDEX_MISSING ? STORE_NO_INDEX : store_refused(r);
}

static int finish_rebuild(struct store *s)
{
	int r = store_check_identity(s);

	if (!r)
		r = rebuild_set_aside(s->index_dir, &s->rebuild);
	if (r)
		return r;
	r = open_index_in(s, true);
	if (r == -EBADMSG) { /* the new one, cut off while it was made */
		r = store_refused(file_unlink(s->index_dir, "data.mdb"));
		if (!r)
			r = open_index_in(s, true);
	} else if (r == -ENOSPC || r == -EDQUOT) {
		r = rebuild_make_room(s->index_dir);
		if (!r)
			r = open_index_in(s, true);
	}
	s->rebuilding = !r;
	return r;
}

static int begin_rebuild(struct store *s, const char *why)
{
	int r = store_check_identity(s);

	if (r)
		return r;
	r = rebuild_begin(s->index_dir, why, clock_wall_ns() / CLOCK_NS_PER_S, &s->rebuild);
	if (r == REBUILD_TOO_OFTEN)
		return STORE_FAILING;
	return r ? r : finish_rebuild(s);
}

/* An index that was committed to once does not become empty by itself. */
static bool was_emptied(const struct store *s)
{
	struct file_stat st;

	return file_stat_at(s->index_dir, "data.mdb", &st) == 0 && store_check_identity(s) == 0;
}

/* Open the index, and read from it who it is of: -EBADMSG if either can't be. */
static int try_index(struct store *s, bool create)
{
	struct meta m;
	int r;

	r = open_index_in(s, false);
	if (r == STORE_NO_INDEX && was_emptied(s))
		return -EBADMSG;
	if (r == STORE_NO_INDEX && create)
		r = open_index_in(s, true);
	if (!r)
		r = store_meta_read(s->index, &m);
	if (r == -EBADMSG)
		index_close(steal(s->index));
	return r;
}

static int open_index(struct store *s, const struct store_options *options)
{
	char why[INDEX_CHECK_TEXT_BYTES] = "";
	int r = store_open_index_dir(s, options);

	if (!r) {
		r = rebuild_read(s->index_dir, &s->rebuild);
		s->rebuilt = !r;
		r = r < 0 ? r : 0;
	}
	if (r)
		return r;
	if (s->rebuild.aside)
		return finish_rebuild(s);
	r = try_index(s, options->create);
	if (r != -EBADMSG)
		return r;
	if (index_check(s->index_dir, why) != -EBADMSG)
		snprintf(why, sizeof(why), "it is empty, or does not say whose it is");
	return begin_rebuild(s, why);
}

static int end_rebuild(struct store *s)
{
	if (!s->rebuilding)
		return 0;
	s->rebuilt = true;
	return rebuild_end(s->index_dir, &s->rebuild);
}

/* --- the mount --- */

/* INDEX_META_MOUNT. */
struct last_mount {
	struct file_mount as; /* zeros: nobody could tell */
	uint32_t number;
};

/* Zeros: there is none yet. < 0: what is there can't be read. */
static int last_mount_read(struct index *index, struct last_mount *ret)
{
	struct buf b cleanup(buf_deinit) = BUF_INIT;
	struct index_txn *t;
	struct cursor c;
	int r = index_begin_read(index, &t);

	*ret = (struct last_mount){0};
	if (r)
		return r;
	r = index_meta_get(t, INDEX_META_MOUNT, &b);
	index_abort(t);
	if (r)
		return r == INDEX_ABSENT ? 0 : r;
	c = cursor_over(b.data, b.len);
	if (get_u8(&c) != MOUNT_VERSION)
		return -EPROTONOSUPPORT;
	get_bytes(&c, ret->as.boot, sizeof(ret->as.boot));
	ret->as.id = get_u64(&c);
	ret->number = get_u32(&c);
	return cursor_finish(&c);
}

static int last_mount_write(struct index *index, const struct last_mount *m)
{
	struct buf b cleanup(buf_deinit) = BUF_INIT;
	struct index_txn *w = NULL;
	int r;

	put_u8(&b, MOUNT_VERSION);
	put_bytes(&b, m->as.boot, sizeof(m->as.boot));
	put_u64(&b, m->as.id);
	put_u32(&b, m->number);
	r = buf_error(&b);
	if (!r)
		r = index_begin_write(index, &w);
	if (!r)
		r = index_meta_put(w, INDEX_META_MOUNT, b.data, b.len);
	if (!r)
		return index_commit(&w);
	index_abort(w);
	return r;
}

/* 0: no number can be had (a full disk, say), or one that came already: no stamp is exact then, which costs reading, no more. */
static uint32_t count_mount(const struct store *s)
{
	struct last_mount last;
	struct file_mount as = {0};
	bool known = file_mounted_as(s->root, &as) == 0;

	if (last_mount_read(s->index, &last) != 0)
		return 0;
	if (known && last.as.id == as.id && memcmp(last.as.boot, as.boot, sizeof(as.boot)) == 0)
		return last.number;
	last.as = as;
	last.number++;
	return last.number && last_mount_write(s->index, &last) == 0 ? last.number : 0;
}

/* --- opening and closing --- */

static int store_new(struct store **ret)
{
	struct store *s = calloc(1, sizeof(*s));
	int r;

	if (!s)
		return -ENOMEM;
	r = pthread_mutex_init(&s->mutex, NULL);
	if (!r) {
		r = pthread_mutex_init(&s->changing, NULL);
		if (r)
			pthread_mutex_destroy(&s->mutex);
	}
	if (r) {
		free(s);
		return -r;
	}
	s->root = s->syncd = s->staging = s->trash = s->lock_fd = s->state_dir = s->index_dir = -1;
	*ret = s;
	return 0;
}

int store_open(struct store **ret, const char *root, const struct store_options *options)
{
	static const struct store_options plain = {0};
	cleanup(store_close_p) struct store *s = NULL;
	int r;

	if (!options)
		options = &plain;
	if (options->algorithm && !hash_algorithm_known((uint8_t)options->algorithm))
		return -EINVAL;
	r = store_new(&s);
	if (!r)
		r = store_open_root(s, root);
	if (!r)
		r = store_open_syncd(s, options->create);
	if (!r)
		r = store_lock(s, options->holder);
	if (!r)
		r = open_index(s, options);
	if (!r)
		r = store_identify(s, options);
	if (!r)
		r = end_rebuild(s);
	if (!r)
		r = store_open_places(s);
	if (r)
		return r;
	s->mount = s->abilities.exact_times ? count_mount(s) : 0;
	*ret = steal(s);
	return 0;
}

void store_close(struct store *s)
{
	if (!s)
		return;
	index_close(s->index);
	close_keep(s->staging);
	close_keep(s->trash);
	close_keep(s->syncd);
	close_keep(s->root);
	close_keep(s->index_dir);
	close_keep(s->state_dir);
	close_keep(s->lock_fd); /* last: whoever gets the lock finds all closed */
	pthread_mutex_destroy(&s->mutex);
	pthread_mutex_destroy(&s->changing);
	free(s->path);
	free(s);
}

/* --- what is known --- */

const char *store_path(const struct store *s)
{
	return s->path;
}

int store_root(const struct store *s)
{
	return s->root;
}

int store_staging(const struct store *s)
{
	return s->staging;
}

int store_trash(const struct store *s)
{
	return s->trash;
}

struct index *store_index(const struct store *s)
{
	return s->index;
}

uint32_t store_mount(const struct store *s)
{
	return s->abilities.exact_times ? s->mount : 0;
}

bool store_exact(const struct store *s, const struct stamp *stamp)
{
	return stamp->exact && (stamp->exact == store_mount(s) || DEFECT(EXACT_FOREVER));
}

const struct file_abilities *store_abilities(const struct store *s)
{
	return &s->abilities;
}

bool store_created(const struct store *s)
{
	return s->created;
}

bool store_copied(const struct store *s)
{
	return s->copied;
}

const struct rebuild *store_rebuilt(const struct store *s)
{
	return s->rebuilt ? &s->rebuild : NULL;
}

bool store_rebuilt_now(const struct store *s)
{
	return s->rebuilding;
}

bool store_damaged_kept(const struct store *s)
{
	return rebuild_kept(s->index_dir);
}

bool store_identity_remade(const struct store *s)
{
	return s->identity_remade;
}

int store_check_index(const struct store *s, char *ret_what)
{
	index_distrust(s->index);
	return index_check(s->index_dir, ret_what);
}
