/*
 * merkle/path.h — names below a folder's root: what is allowed, and their order.
 *
 * A path is one to FILE_DEPTH_MAX components joined by '/', without leading or trailing '/', each 1…255 bytes, none
 * of them "." or ".." or ".syncd" (nor any spelling that some file system takes for it: letter case, ignorable code
 * points, trailing dots and spaces, an 8.3 alias), no NUL; at most FILE_PATH_BYTES_MAX bytes. Names are bytes, not
 * text.
 *
 * The order of paths is memcmp over their keys: '/' becomes a 0 byte, so that a directory comes right before
 * everything below it and a subtree is one range. A key fits LMDB's 511 bytes: a path longer than PATH_KEY_PLAIN_MAX
 * is cut to PATH_KEY_PREFIX bytes, followed by 0xff and 32 bytes of SHA-256 of the whole path (such keys are told by
 * their length; the row holds the path). So what lies below a path of at least PATH_KEY_PREFIX bytes is in two
 * places: plain keys right behind its own, and cut keys behind its first PATH_KEY_PREFIX bytes and 0xff, among those
 * of other paths.
 */
#ifndef MERKLE_PATH_H
#define MERKLE_PATH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/file.h"

#define PATH_KEY_PLAIN_MAX 472
#define PATH_KEY_PREFIX 440
#define PATH_KEY_BYTES_MAX 473
#define PATH_STATE_NAME ".syncd"

struct path_key {
	uint16_t len;
	uint8_t bytes[PATH_KEY_BYTES_MAX];
};

bool path_valid(const char *path);
bool path_component_valid(const char *name, size_t n);
void path_key(struct path_key *ret, const char *path); /* path must be valid, or "" (the empty key, before all) */
int path_key_compare(const struct path_key *a, const struct path_key *b);
/* Is `path` strictly below `above`? Everything is below "". */
bool path_is_below(const char *path, const char *above);
/* Length of the parent's path: 0 for a name at the root. */
size_t path_parent_length(const char *path);
bool path_same_parent(const char *a, const char *b);
const char *path_name(const char *path); /* the last component, inside path */
size_t path_depth(const char *path);	 /* components */
/* Heap: "dir/name", or "name" if dir is "". NULL when out of memory. */
char *path_join(const char *dir, const char *name);

#endif
