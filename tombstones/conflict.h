/*
 * tombstones/conflict.h — names of conflict copies: stem, 12 hex digits of the loser's content hash, extension; no clock.
 *
 *   report.txt  →  report.sync-conflict-9f86d081884c.txt     (number n > 1: report.sync-conflict-9f86d081884c-2.txt)
 *
 * A copy of a copy does not nest: the old marker is replaced. Names stay within 255 bytes: the stem is cut (not inside a
 * UTF-8 sequence). The directory part is kept.
 */
#ifndef TOMBSTONES_CONFLICT_H
#define TOMBSTONES_CONFLICT_H

#include "merkle/hash.h"

/* Heap path, or NULL when out of memory. n counts from 1. */
char *conflict_path(const char *path, const struct hash *content, unsigned n);
/* Does the name bear the marker? (for listing) */
bool conflict_is_copy(const char *path);
/* The original's path of a copy (heap), NULL if it is none or out of memory. */
char *conflict_original(const char *path);

#endif
