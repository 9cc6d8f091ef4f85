/* transfer/partial.c — see transfer/partial.h. */
#include "transfer/partial.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ROOT_BYTES 16 /* of the root, in the name: the content is verified in any case */

void partial_name(char ret[PARTIAL_NAME_BYTES], const struct hash *root)
{
	char hex[2 * ROOT_BYTES + 1];

	snprintf(ret, PARTIAL_NAME_BYTES, PARTIAL_PREFIX "%s", hash_hex(root, ROOT_BYTES, hex));
}

/* Whoever had it locked before may have given it another name by now, or removed it. */
static int lock_named(int staging, const char *name, int fd, struct file_stat *ret)
{
	struct file_stat named;
	int r = file_lock(fd);

	if (r == 0)
		r = file_stat_fd(fd, ret);
	if (r == 0)
		r = file_stat_at(staging, name, &named);
	return r == 0 && named.ino != ret->ino ? FILE_VANISHED : r;
}

int partial_open(struct store *s, const char *name, int *ret_fd, uint64_t *ret_size)
{
	cleanup_close int fd = -1;
	int staging = store_staging(s), r = file_open_write(staging, name, &fd);
	struct file_stat st;

	if (r == FILE_VANISHED)
		r = file_create(staging, name, 0600, &fd);
	if (r == 0)
		r = lock_named(staging, name, fd, &st);
	if (r != 0)
		return r < 0 ? r : PARTIAL_NONE;
	*ret_fd = steal_fd(fd);
	*ret_size = st.size;
	return 0;
}

bool partial_stays(struct store *s, const char *name, int64_t now_ns)
{
	struct file_stat st;

	return strncmp(name, PARTIAL_PREFIX, strlen(PARTIAL_PREFIX)) == 0 && file_stat_at(store_staging(s), name, &st) == 0 &&
	       st.kind == FILE_KIND_REGULAR &&
	       (!now_ns || (now_ns - st.mtime_ns < PARTIAL_KEEP_NS && st.mtime_ns - now_ns < PARTIAL_KEEP_NS));
}

static bool remove_unlocked(int staging, const char *name)
{
	cleanup_close int fd = -1;
	struct file_stat st;

	return file_open_write(staging, name, &fd) == 0 && lock_named(staging, name, fd, &st) == 0 && file_unlink(staging, name) == 0;
}

int partial_expire(struct store *s, int64_t now_ns, unsigned *ret_removed)
{
	cleanup_file_dir struct file_dir *d = NULL;
	int staging = store_staging(s);
	const char *name;
	int r = file_dir_open(staging, &d);

	*ret_removed = 0;
	while (r == 0 && (r = file_dir_next(d, &name)) == 0)
		if (partial_stays(s, name, 0) && (!now_ns || !partial_stays(s, name, now_ns)))
			*ret_removed += remove_unlocked(staging, name);
	return r < 0 ? r : 0;
}
