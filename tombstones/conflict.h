/*
 * tombstones/conflict.h — names of conflict copies: stem, 12 hex digits of the loser's content hash, extension; no clock.
 *
 *   report.txt  →  report.sync-conflict-9f86d081884c.txt     (number n > 1: report.sync-conflict-9f86d081884c-2.txt)
 *
 * A copy of a copy does not nest: the old marker is replaced. Names stay within 255 bytes: the stem is cut (not inside a
 * UTF-8 sequence). The directory part is kept. An extension is what follows the last dot of a name that does not begin
 * with that dot, up to CONFLICT_EXTENSION_BYTES_MAX; a longer one is taken for a part of the stem. A path that would grow
 * past FILE_PATH_BYTES_MAX is cut in its stem too, down to nothing; what is still too long then is refused where it is used.
 */
#ifndef TOMBSTONES_CONFLICT_H
#define TOMBSTONES_CONFLICT_H

#include "merkle/hash.h"

#define CONFLICT_EXTENSION_BYTES_MAX 32 /* with its dot */

/* Heap path, or NULL when out of memory. n counts from 1; no n gives `path` itself, so that what is put aside never lies
 * where the winner goes. */
char *conflict_path(const char *path, const struct hash *content, unsigned n);
/* Does the name bear the marker? (for listing) */
bool conflict_is_copy(const char *path);
/* The original's path of a copy (heap), NULL if it is none or out of memory. Of a cut name, what is left of it. */
char *conflict_original(const char *path);

#endif
