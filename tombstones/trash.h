/*
 * tombstones/trash.h — what was replaced or deleted, kept for a while in .syncd/trash, browsable by people:
 *
 *   .syncd/trash/2026-11-21/dir/name        the day it was put there (UTC), then its path
 *   .syncd/trash/2026-11-21.1/dir/name      the next free number where the name, or a parent of it, is taken
 *
 * Only files and symlinks are moved here, by rename on one file system; directories are made as needed, 0700. A bucket's
 * day and, within a day, the time of the move (ctime) tell an entry's age. Names in trash/ that are no buckets are left
 * alone; a trash/ that somebody removed is made again. No symlink is followed, and nothing but directories is opened. Callers
 * exclude each other (the writer lock), but for trash_list, which only looks. A path that may not be (path_valid) is -EINVAL.
 */
#ifndef TOMBSTONES_TRASH_H
#define TOMBSTONES_TRASH_H

#include "merkle/store.h"

struct trash_entry {
	const char *bucket; /* "2026-11-21" or "2026-11-21.1" */
	const char *path;   /* where it came from */
	struct file_stat stat;
};

/* Make room for `path` in a bucket of today: a directory descriptor (caller closes) and the name to rename to (inside
 * `path`), which is not taken. *ret_bucket: heap, for messages and intents. O(depth × log of the buckets of a day). */
int trash_place(struct store *s, const char *path, int64_t now_ns, int *ret_dir, const char **ret_name, char **ret_bucket);
/* Move dir/name to trash as `path`. FILE_VANISHED; another kind: FILE_IS_DIRECTORY, FILE_UNSUPPORTED. *ret_bucket (may be
 * NULL): heap. Durable once dir and the file system's journal are: a rename is there or not, never half. */
int trash_put(struct store *s, int dir, const char *name, const char *path, int64_t now_ns, char **ret_bucket);
/* Each entry, newest bucket first, then path order. Non-zero stops, passed on. What vanishes meanwhile is passed over. */
int trash_list(struct store *s, int (*emit)(const struct trash_entry *e, void *data), void *data);
/* Put the newest (or the bucket's) entry of `path` back in place; FILE_EXISTS if the path is taken, FILE_VANISHED if there
 * is none in trash, or its directory is not there and can't be made. Directories on the way are made with the mode and the
 * owner of the one they are in. *ret_bucket (may be NULL): heap, where it was. */
int trash_restore(struct store *s, const char *path, const char *bucket, char **ret_bucket);
/* Remove buckets older than keep_ns, then the oldest entries until the rest is within max_bytes of disk space (0: no limit).
 * keep_ns < 0: no limit. What cannot be removed is left, and the first reason is returned at the end. */
int trash_expire(struct store *s, int64_t now_ns, int64_t keep_ns, uint64_t max_bytes, uint64_t *ret_removed_bytes);
/* Remove the oldest entries until `bytes` of disk space are free that were not, or none is left. *ret_removed_bytes: how many. */
int trash_make_room(struct store *s, uint64_t bytes, uint64_t *ret_removed_bytes);

#endif
