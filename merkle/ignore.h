/*
 * merkle/ignore.h — .syncignore: which paths are not ours. gitignore's syntax and meaning: blank lines, '#', '!',
 * '\', trailing '/', leading or inner '/', '*', '?', '[…]', '**'; the last matching line wins; nothing below an
 * ignored directory can be taken back. Files named .syncignore in any directory apply to what is below it; the file in a
 * deeper directory wins over one above. The .syncignore files themselves are synced like any file.
 * Newly ignored paths are untracked, never deleted. Matching is by bytes and minds the case. Its cost is bounded for
 * any pattern (no exponential backtracking), since a peer may have written the file.
 * Thread-safe (a read-write lock inside).
 */
#ifndef MERKLE_IGNORE_H
#define MERKLE_IGNORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define IGNORE_FILE_NAME ".syncignore"
#define IGNORE_FILE_BYTES_MAX (1024 * 1024)
#define IGNORE_RULES_MAX 10000 /* of one file */

enum ignore_outcome {
	IGNORE_CHANGED = 1, /* ignore_read: other rules than before are in force now */
};

struct ignore;

int ignore_new(struct ignore **ret);
void ignore_free(struct ignore *i);
/* Set (or replace) the rules of the .syncignore in directory `dir` ("" = root); n == 0 removes them. A line that cannot
 * be understood is skipped and counted in *ret_bad (may be NULL). -EFBIG beyond IGNORE_RULES_MAX: nothing is changed. */
int ignore_set(struct ignore *i, const char *dir, const char *text, size_t n, size_t *ret_bad);
/* Drop the rules of all directories at or below dir. */
void ignore_forget(struct ignore *i, const char *dir);
/* Is the path itself, or a directory above it, ignored? `directory`: what the path is. O(depth × lines). */
bool ignore_match(const struct ignore *i, const char *path, bool directory);
/* The same where the caller knows that no directory above is ignored: looks at the path itself only. */
bool ignore_match_name(const struct ignore *i, const char *path, bool directory);
/* Digest of all rules, independent of the order of setting; 0 if there are none. */
uint64_t ignore_digest(const struct ignore *i);
/* Read the .syncignore of directory `dirfd` (path `dir`) if it changed; called while scanning. One that is not there, or
 * is not a regular file, means no rules. 0, IGNORE_CHANGED, FILE_DENIED as -EACCES, -EFBIG, …: the rules that were in
 * force stay, and the caller must not conclude that what it finds is wanted. */
int ignore_read(struct ignore *i, int dirfd, const char *dir);

#endif
