/*
 * tombstones/undo.c — see tombstones/undo.h.
 *
 * Nothing is synced here: after a power cut an object may be back where a user had put it, without a row, and the next scan
 * takes it back again.
 */
#include "tombstones/undo.h"

#include "base/clock.h"
#include "base/error.h"
#include "merkle/scan.h"
#include "tombstones/trash.h"

int undo_object(struct store *s, const char *path)
{
	int dir cleanup_close = -1;
	const char *name;
	int r = file_open_parent(store_root(s), path, &dir, &name);

	return r ? r : trash_put(s, dir, name, path, clock_wall_ns(), NULL);
}

int undo_rename(struct store *s, const char *path, const char *was)
{
	int from cleanup_close = -1, to cleanup_close = -1;
	const char *name, *old;
	int r = file_open_parent(store_root(s), path, &from, &name);

	if (!r)
		r = file_open_parent(store_root(s), was, &to, &old);
	return r ? r : file_rename_noreplace(from, name, to, old);
}

int undo_directory(struct store *s, const char *path)
{
	int dir cleanup_close = -1;
	const char *name;
	int r = file_open_parent(store_root(s), path, &dir, &name);

	return r ? r : file_rmdir(dir, name);
}

static int check_found(const struct file_stat *st, const struct stamp *found)
{
	struct stamp now;

	stamp_of(st, &now);
	return stamp_equal(&now, found) ? 0 : FILE_BUSY;
}

/* A symlink has no descriptor; its mode is none. */
static int set_symlink(int dir, const char *name, const struct stamp *found, const struct stamp *wanted)
{
	int r = 0;

	if (found->uid != wanted->uid || found->gid != wanted->gid)
		r = file_chown_at(dir, name, wanted->uid, wanted->gid);
	if (!r && found->mtime_ns != wanted->mtime_ns)
		r = file_set_mtime_at(dir, name, wanted->mtime_ns);
	return r;
}

/* Changing the owner may clear mode bits: mode comes after it. */
static int set_open(int fd, bool directory, const struct stamp *found, const struct stamp *wanted)
{
	bool owner = found->uid != wanted->uid || found->gid != wanted->gid;
	int r = 0;

	if (owner)
		r = file_chown_fd(fd, wanted->uid, wanted->gid);
	if (!r && (owner || found->mode != wanted->mode))
		r = file_chmod_fd(fd, wanted->mode);
	if (!r && !directory && found->mtime_ns != wanted->mtime_ns)
		r = file_set_mtime_fd(fd, wanted->mtime_ns);
	return r;
}

int undo_attributes(struct store *s, const char *path, const struct stamp *found, const struct stamp *wanted, struct stamp *ret,
	int64_t *ret_looked_ns)
{
	int dir cleanup_close = -1, fd cleanup_close = -1;
	struct file_stat st;
	const char *name;
	int r = file_open_parent(store_root(s), path, &dir, &name);

	if (!r)
		r = file_stat_at(dir, name, &st);
	if (!r && st.kind == FILE_KIND_DIRECTORY)
		r = file_open_directory_at(dir, name, &fd);
	else if (!r && st.kind == FILE_KIND_REGULAR)
		r = file_open_read(dir, name, &fd);
	if (!r && fd >= 0)
		r = file_stat_fd(fd, &st);
	if (!r)
		r = check_found(&st, found);
	if (!r)
		r = fd < 0 ? set_symlink(dir, name, found, wanted)
			   : set_open(fd, st.kind == FILE_KIND_DIRECTORY, found, wanted);
	*ret_looked_ns = clock_wall_ns();
	if (!r)
		r = fd < 0 ? file_stat_at(dir, name, &st) : file_stat_fd(fd, &st);
	if (!r)
		stamp_of(&st, ret);
	return r;
}
