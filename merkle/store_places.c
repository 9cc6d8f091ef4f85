/*
 * merkle/store_places.c — the directories of a replica, where they may be, and its lock; see merkle/store_internal.h.
 */
#include "merkle/store_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/error.h"

#define LOCK "lock"
#define LOCK_TRIES 5 /* store_lock_holder holds the lock for a moment when it looks */
#define WANTED "wanted"
#define PATH_TEXT_MAX 4096

static const char cachedir_tag[] = "Signature: 8a477f597d28d172789f06886806bc55\n"
				   "# syncd keeps its state here: nothing that a backup needs.\n";

int store_refused(int r)
{
	switch (r) {
	case FILE_DENIED:
	case -EACCES:
	case -EPERM:
		return STORE_DENIED;
	case -EROFS:
		return STORE_READ_ONLY;
	case FILE_VANISHED:
		return -ENOENT;
	case FILE_EXISTS:
		return -EEXIST;
	case FILE_OUTSIDE:
		return -ELOOP;
	case FILE_BUSY:
		return -EBUSY;
	}
	return r > 0 ? -EIO : r;
}

/* --- what is made --- */

int store_give(const struct store *s, int fd)
{
	if (geteuid() || !s->root_stat.uid)
		return 0;
	return store_refused(file_chown_fd(fd, s->root_stat.uid, s->root_stat.gid));
}

int store_sync_directory(int fd)
{
	int r = file_fsync(fd);

	return r == FILE_UNSUPPORTED ? 0 : store_refused(r);
}

/* Open a directory, made if there is none. *ret_made: by us. */
static int open_made(const struct store *s, int dir, const char *name, int *ret_fd, bool *ret_made)
{
	cleanup_close int fd = -1;
	int r, opened, tries = 0;

	do { /* somebody who empties the trash may remove it in between */
		r = file_mkdir(dir, name, 0700);
		if (r && r != FILE_EXISTS && r != FILE_DENIED && r != -EROFS)
			return store_refused(r);
		opened = file_open_directory_at(dir, name, &fd);
	} while (opened == FILE_VANISHED && r >= 0 && r != FILE_DENIED && ++tries < 4);
	*ret_made = r == 0;
	if (opened && (r == FILE_DENIED || r == -EROFS))
		return store_refused(r);
	if (opened)
		return opened == FILE_VANISHED ? -ENOTDIR : store_refused(opened);
	if (*ret_made) {
		r = store_give(s, fd);
		if (r)
			return r;
	}
	*ret_fd = steal_fd(fd);
	return 0;
}

static int open_or_create(
	const struct store *s, int dir, const char *name, int *ret_fd, bool *ret_made)
{
	cleanup_close int fd = -1;
	int r;

	*ret_made = false;
	r = file_open_write(dir, name, &fd);
	if (r == FILE_VANISHED) {
		r = file_create(dir, name, 0600, &fd);
		if (r == FILE_EXISTS) /* someone else just did */
			r = file_open_write(dir, name, &fd);
		else if (!r)
			*ret_made = true;
	}
	if (r)
		return store_refused(r);
	if (*ret_made) {
		r = store_give(s, fd);
		if (r)
			return r;
	}
	*ret_fd = steal_fd(fd);
	return 0;
}

/* --- the root and .syncd --- */

/* `path` made absolute: what a change of directory must not change. */
static int absolute(const char *path, char **ret)
{
	char here[PATH_TEXT_MAX], *joined = NULL;

	if (*path == '/') {
		*ret = strdup(path);
		return *ret ? 0 : -ENOMEM;
	}
	if (!getcwd(here, sizeof(here)))
		return -errno;
	if (asprintf(&joined, "%s/%s", here, path) < 0)
		return -ENOMEM;
	*ret = joined;
	return 0;
}

static bool same_object(const struct file_stat *a, const struct file_stat *b)
{
	return a->ino == b->ino && a->dev == b->dev;
}

/* Look at each directory above `path` on its mount; `see` returns non-zero to stop, which is passed
 * on. Directories that we may not read are passed over. */
static int look_above(
	const char *path, int (*see)(int dir, const struct file_stat *st, void *data), void *data)
{
	char up[PATH_TEXT_MAX];
	struct file_stat st, below = {0};
	size_t n = strlen(path);
	int r;

	if (n >= sizeof(up))
		return -ENAMETOOLONG;
	memcpy(up, path, n + 1);
	for (bool first = true;; first = false) {
		cleanup_close int fd = -1;

		r = file_open_directory(up, &fd);
		if (r < 0 && r != -ENAMETOOLONG)
			return r;
		if (r == 0) {
			r = file_stat_fd(fd, &st);
			if (r)
				return store_refused(r);
			if (!first && below.ino &&
				(st.dev != below.dev || same_object(&st, &below)))
				return 0;
			r = first ? 0 : see(fd, &st, data);
			if (r)
				return r;
			below = st;
		}
		if (n + 4 > sizeof(up))
			return 0;
		memcpy(up + n, "/..", 4);
		n += 3;
	}
}

/* Is there a folder's .syncd in this directory? Only its owner's counts: in a directory like /tmp
 * anyone could make one. */
static int see_folder(int dir, const struct file_stat *st, void *data)
{
	cleanup_close int fd = -1;
	struct file_stat inner;
	int r;

	(void)data;
	if (file_stat_at(dir, PATH_STATE_NAME, &inner) || inner.kind != FILE_KIND_DIRECTORY ||
		inner.uid != st->uid)
		return 0;
	r = file_open_directory_at(dir, PATH_STATE_NAME, &fd);
	if (r == FILE_DENIED)
		return STORE_OVERLAP;
	return !r && file_stat_at(fd, STORE_IDENTITY, &inner) == 0 ? STORE_OVERLAP : 0;
}

static int see_root(int dir, const struct file_stat *st, void *data)
{
	(void)dir;
	return same_object(st, data) ? STORE_OVERLAP : 0;
}

int store_open_root(struct store *s, const char *root)
{
	int r;

	r = absolute(root, &s->path);
	if (r)
		return r;
	r = file_open_directory(s->path, &s->root);
	if (r)
		return r == FILE_VANISHED ? STORE_NO_ROOT : store_refused(r);
	r = file_stat_fd(s->root, &s->root_stat);
	return r ? store_refused(r) : look_above(s->path, see_folder, NULL);
}

int store_open_syncd(struct store *s, bool create)
{
	struct file_stat st;
	bool made = false;
	int r;

	r = file_stat_at(s->root, PATH_STATE_NAME, &st);
	if (r == FILE_VANISHED && !create)
		return STORE_NO_INDEX;
	if (r && r != FILE_VANISHED)
		return store_refused(r);
	r = open_made(s, s->root, PATH_STATE_NAME, &s->syncd, &made);
	if (r)
		return r;
	r = file_stat_fd(s->syncd, &st);
	if (r)
		return store_refused(r);
	if (st.uid != s->root_stat.uid && st.uid && st.uid != geteuid())
		return STORE_DENIED;
	if (st.mode & 0077) {
		/* an outcome: this file system has no modes, and hides nothing anyway */
		r = file_chmod_fd(s->syncd, st.mode & 0700);
		if (r < 0)
			return store_refused(r);
	}
	if (!made)
		return 0;
	r = file_set_hints(s->syncd);
	return r < 0 ? store_refused(r) : store_sync_directory(s->root);
}

int store_check_root(const struct store *s)
{
	cleanup_close int root = -1, syncd = -1;
	struct file_stat st;
	int r;

	r = file_open_directory(s->path, &root);
	if (!r)
		r = file_stat_fd(root, &st);
	if (!r && !same_object(&st, &s->root_stat))
		return STORE_ROOT_CHANGED;
	if (!r)
		r = file_open_directory_at(root, PATH_STATE_NAME, &syncd);
	if (r)
		return r < 0 ? r : STORE_ROOT_CHANGED;
	return store_check_identity_file(s, syncd);
}

/* --- the lock --- */

static int take_lock(int fd)
{
	const struct timespec pause = {.tv_nsec = 20 * CLOCK_NS_PER_MS};
	int r = 0;

	for (int k = 0; k < LOCK_TRIES; k++) {
		r = file_lock(fd);
		if (r != FILE_BUSY)
			return store_refused(r);
		nanosleep(&pause, NULL);
	}
	return STORE_LOCKED;
}

static int write_holder(int fd, const char *holder)
{
	cleanup_free char *text = NULL;
	int n = asprintf(&text, "%ld %s\n", (long)getpid(), holder ? holder : "");
	int r;

	if (n < 0) {
		text = NULL;
		return -ENOMEM;
	}
	/* in this order a reader never finds less than a whole line */
	r = file_write(fd, text, (size_t)n, 0);
	return store_refused(r ? r : file_truncate(fd, (uint64_t)n));
}

int store_lock(struct store *s, const char *holder)
{
	bool made;
	int r;

	if (holder && (strlen(holder) > STORE_HOLDER_BYTES_MAX || strchr(holder, '\n')))
		return -EINVAL;
	r = open_or_create(s, s->syncd, LOCK, &s->lock_fd, &made);
	if (!r)
		r = take_lock(s->lock_fd);
	if (!r && file_unlink(s->syncd, WANTED) < 0)
		r = -EIO;
	return r ? r : write_holder(s->lock_fd, holder);
}

static int read_holder(int fd, int64_t *ret_pid, char **ret_holder)
{
	cleanup_free char *text = malloc(STORE_HOLDER_BYTES_MAX + 32);
	char *end;
	long pid;
	size_t n;
	int r;

	if (!text)
		return -ENOMEM;
	r = file_read(fd, text, STORE_HOLDER_BYTES_MAX + 31, 0, &n);
	if (r)
		return store_refused(r);
	text[n] = '\0';
	text[strcspn(text, "\n")] = '\0';
	pid = strtol(text, &end, 10);
	end += *end == ' ';
	memmove(text, end, strlen(end) + 1);
	*ret_pid = pid > 0 ? pid : 0;
	*ret_holder = steal(text);
	return 0;
}

int store_lock_holder(const char *root, int64_t *ret_pid, char **ret_holder)
{
	cleanup_close int dir = -1, syncd = -1, fd = -1;
	int r;

	r = file_open_directory(root, &dir);
	if (r)
		return r == FILE_VANISHED ? STORE_NO_ROOT : store_refused(r);
	r = file_open_directory_at(dir, PATH_STATE_NAME, &syncd);
	if (!r)
		r = file_open_read(syncd, LOCK, &fd);
	if (r)
		return r == FILE_VANISHED ? STORE_NO_INDEX : store_refused(r);
	r = file_lock(fd);
	if (r == FILE_BUSY)
		return read_holder(fd, ret_pid, ret_holder);
	return r ? store_refused(r) : STORE_NO_INDEX;
}

int store_ask_release(const char *root)
{
	cleanup_close int dir = -1, syncd = -1, fd = -1;
	int r = file_open_directory(root, &dir);

	if (!r)
		r = file_open_directory_at(dir, PATH_STATE_NAME, &syncd);
	if (!r)
		r = file_create(syncd, WANTED, 0600, &fd);
	return r == FILE_EXISTS ? 0 : r ? store_refused(r) : 0;
}

bool store_release_asked(const struct store *s)
{
	struct file_stat st;

	return file_stat_at(s->syncd, WANTED, &st) == 0;
}

int store_owner(const char *root, uint32_t *ret_uid)
{
	cleanup_close int dir = -1;
	struct file_stat st;
	int r;

	r = file_open_directory(root, &dir);
	if (r)
		return r == FILE_VANISHED ? STORE_NO_ROOT : store_refused(r);
	r = file_stat_at(dir, PATH_STATE_NAME, &st);
	if (r == FILE_VANISHED)
		r = file_stat_fd(dir, &st);
	if (r)
		return store_refused(r);
	*ret_uid = st.uid;
	return 0;
}

/* --- what is in .syncd, and the directory of the index --- */

static int write_cachedir_tag(const struct store *s)
{
	cleanup_close int fd = -1;
	bool made;
	int r;

	r = open_or_create(s, s->syncd, "CACHEDIR.TAG", &fd, &made);
	if (r || !made)
		return r;
	return store_refused(file_write(fd, cachedir_tag, sizeof(cachedir_tag) - 1, 0));
}

int store_open_places(struct store *s)
{
	bool made;
	int r;

	r = open_made(s, s->syncd, "staging", &s->staging, &made);
	if (!r)
		r = open_made(s, s->syncd, "trash", &s->trash, &made);
	if (!r)
		r = write_cachedir_tag(s);
	if (r)
		return r;
	r = file_probe(s->staging, &s->abilities);
	if (r == -ENOSPC || r == -EDQUOT) {
		/* a full disk must be told, not end us: promise nothing; but a symlink that can't be made now is no
		 * symlink that never can be */
		s->abilities = (struct file_abilities){.symlink = true, .time_granularity_ns = 2 * CLOCK_NS_PER_S};
		r = 0;
	}
	return store_refused(r);
}

int store_renew_trash(struct store *s)
{
	cleanup_close int fd = -1;
	bool made;
	int r = open_made(s, s->syncd, "trash", &fd, &made);

	if (!r)
		r = store_sync_directory(s->syncd);
	if (!r && dup3(fd, s->trash, O_CLOEXEC) < 0) /* whoever uses it now has the old one or the new one */
		r = -errno;
	return r;
}

static int open_state_dir(struct store *s, const char *path, bool create)
{
	cleanup_free char *full = NULL;
	cleanup_close int parent = -1;
	char *slash;
	bool made;
	int r;

	r = absolute(path, &full);
	if (r)
		return r;
	for (size_t n = strlen(full); n > 1 && full[n - 1] == '/'; n--)
		full[n - 1] = '\0';
	r = file_open_directory(full, &s->state_dir);
	if (r == FILE_VANISHED && create) {
		slash = strrchr(full, '/');
		*slash = '\0';
		r = file_open_directory(*full ? full : "/", &parent);
		*slash = '/';
		if (!r) {
			r = open_made(s, parent, slash + 1, &s->state_dir, &made);
			return r || !made ? r : store_sync_directory(parent);
		}
	}
	return r == FILE_VANISHED ? STORE_NO_INDEX : store_refused(r);
}

static int check_state_dir(struct store *s, const char *path)
{
	cleanup_free char *full = NULL;
	struct file_stat st;
	int r;

	r = file_stat_fd(s->state_dir, &st);
	if (r)
		return store_refused(r);
	if (same_object(&st, &s->root_stat))
		return STORE_OVERLAP;
	r = absolute(path, &full);
	if (!r)
		r = look_above(full, see_root, &s->root_stat);
	return r ? r : take_lock(s->state_dir);
}

int store_open_index_dir(struct store *s, const struct store_options *options)
{
	bool made;
	int r;

	if (!options->state_dir)
		return open_made(s, s->syncd, "index", &s->index_dir, &made);
	r = open_state_dir(s, options->state_dir, options->create);
	if (!r)
		r = check_state_dir(s, options->state_dir);
	if (!r)
		r = store_refused(file_open_directory_at(s->state_dir, "", &s->index_dir));
	return r;
}
