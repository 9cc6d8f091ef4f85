/*
 * tombstones/trash.h — what was replaced or deleted, kept for a while in .syncd/trash, browsable by people:
 *
 *   .syncd/trash/2026-11-21/dir/name        the day it was put there (UTC), then its path
 *   .syncd/trash/2026-11-21.1/dir/name      the next free number where the name, or a parent of it, is taken
 *
 * Only files and symlinks (and empty directories never) are moved here, by rename on one file system.
 */
#ifndef TOMBSTONES_TRASH_H
#define TOMBSTONES_TRASH_H

#include "merkle/store.h"

struct trash_entry {
	const char *bucket; /* "2026-11-21" or "2026-11-21.1" */
	const char *path;   /* where it came from */
	struct file_stat stat;
};

/* Make room for `path` in today's bucket: a directory descriptor (caller closes) and the name to rename to, which is not
 * taken. *ret_bucket: heap, for messages and intents. */
int trash_place(struct store *s, const char *path, int64_t now_ns, int *ret_dir, const char **ret_name, char **ret_bucket);
/* Move dir/name to trash as `path`. FILE_VANISHED. *ret_bucket (may be NULL): heap. */
int trash_put(struct store *s, int dir, const char *name, const char *path, int64_t now_ns, char **ret_bucket);
/* Each entry, newest bucket first, then path order. Non-zero stops. */
int trash_list(struct store *s, int (*emit)(const struct trash_entry *e, void *data), void *data);
/* Put the newest (or the bucket's) entry of `path` back in place; FILE_EXISTS if the path is taken, FILE_VANISHED if there
 * is none in trash, or its directory is not there and can't be made. */
int trash_restore(struct store *s, const char *path, const char *bucket, char **ret_bucket);
/* Remove buckets older than keep_ns, then the oldest entries until the rest is within max_bytes (0: no limit). */
int trash_expire(struct store *s, int64_t now_ns, int64_t keep_ns, uint64_t max_bytes, uint64_t *ret_removed_bytes);

#endif
