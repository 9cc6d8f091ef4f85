/*
 * base/sync.c — see base/sync.h.
 */
#include "base/sync.h"

#include <errno.h>

#include "base/file.h"

void sync_set_add(struct sync_set *s, int fd)
{
	cleanup_close int owned = fd;
	struct file_stat st;

	if (s->many)
		return;
	if (file_stat_fd(owned, &st) != 0) {
		s->many = true;
		return;
	}
	for (size_t i = 0; i < s->n; i++)
		if (s->inos[i] == st.ino)
			return;
	if (s->n == SYNC_SET_MAX) {
		s->many = true;
		return;
	}
	s->inos[s->n] = st.ino;
	s->fds[s->n++] = steal_fd(owned);
}

void sync_set_drop(struct sync_set *s)
{
	for (size_t i = 0; i < s->n; i++)
		close_keep(s->fds[i]);
	s->n = 0;
	s->many = false;
}

int sync_set_run(struct sync_set *s, int any_fd)
{
	int r = s->many ? file_syncfs(any_fd) : 0;

	for (size_t i = 0; i < s->n && r == 0 && !s->many; i++) {
		r = file_fsync(s->fds[i]);
		/* Directories of some network file systems can't be synced one by one. */
		if (r == FILE_UNSUPPORTED)
			r = file_syncfs(any_fd);
	}
	sync_set_drop(s);
	return r > 0 ? -EIO : r;
}
