/*
 * merkle/durable.c — see merkle/durable.h.
 */
#include "merkle/durable.h"

#include <stdio.h>

#include "base/file.h"
#include "merkle/path.h"

/* It was recorded there, and nobody has moved it since. Its change time is another one, too, if names in it came or went: then a
 * sync is done that was not needed. */
static bool name_durable(struct index_txn *t, const char *path, int fd)
{
	cleanup(row_deinit) struct row row = {0};
	struct file_stat st;

	return !*path || (index_get(t, path, &row) == 0 && row.place != ROW_NOT_HERE && file_stat_fd(fd, &st) == 0 &&
				 row.stamp.ino == st.ino && row.stamp.ctime_ns == st.ctime_ns);
}

void durable_add_above(struct index_txn *t, int root, const char *path, struct sync_set *set)
{
	char at[FILE_PATH_BYTES_MAX + 1];
	bool durable = false;
	int fd, r;

	snprintf(at, sizeof(at), "%s", path);
	do {
		at[path_parent_length(at)] = '\0';
		r = file_open_directory_at(root, at, &fd);
		if (r == 0) {
			durable = name_durable(t, at, fd);
			sync_set_add(set, fd);
		}
	} while (*at && !durable && (r == 0 || r == FILE_VANISHED));
	if (r != 0)
		set->many = true;
}
