/*
 * tombstones/undo.h — take back on disk what a user changed, in folders that only take. Nothing is overwritten or unlinked:
 * what a user wrote goes to trash. No index; callers hold the writer lock. Outcomes as of base/file.h.
 */
#ifndef TOMBSTONES_UNDO_H
#define TOMBSTONES_UNDO_H

#include "merkle/store.h"

/* The file or symlink at path goes to trash, whatever it is by now. FILE_IS_DIRECTORY, FILE_VANISHED. */
int undo_object(struct store *s, const char *path);
/* Give the object mode, owner and, unless it is a directory, mtime as they are in `wanted`. found: what the scan saw; if it
 * is not that any more: FILE_BUSY, and nothing was changed. *ret: the new stamp, *ret_looked_ns: just before it was taken. */
int undo_attributes(struct store *s, const char *path, const struct stamp *found, const struct stamp *wanted, struct stamp *ret,
	int64_t *ret_looked_ns);
/* Move what is at `path` back to the name `was`, if nothing is there. FILE_EXISTS, FILE_VANISHED (its directory is gone). */
int undo_rename(struct store *s, const char *path, const char *was);
/* Remove an empty directory. FILE_NOT_EMPTY. */
int undo_directory(struct store *s, const char *path);

#endif
