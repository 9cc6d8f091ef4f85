/*
 * tests/unit/transfer/apply_points.h — every call that changes the disk or commits is a point where a test may step in.
 * The linker routes the calls here (--wrap, see the Makefile: crash_points).
 */
#ifndef TESTS_APPLY_POINTS_H
#define TESTS_APPLY_POINTS_H

#include "base/file.h"
#include "merkle/index.h"

static struct {
	void (*step)(unsigned point, const char *call, void *data); /* NULL: not armed */
	void *data;
	unsigned count; /* points passed since it was armed */
	bool no_lease;	/* as on a file system without them */
	int error;	/* set by the step: what this call is to fail with */
} points;

static inline void points_arm(void (*step)(unsigned point, const char *call, void *data), void *data)
{
	points.step = step;
	points.data = data;
	points.count = 0;
}

static inline int points_pass(const char *call)
{
	void (*step)(unsigned point, const char *call, void *data) = points.step;

	if (!step)
		return 0;
	points.error = 0;
	points.step = NULL; /* what the step itself calls is no point */
	step(++points.count, call, points.data);
	points.step = step;
	return points.error;
}

#define POINT(name, parameters, arguments)                                                         \
	int __real_##name parameters;                                                              \
	int __wrap_##name parameters;                                                              \
	int __wrap_##name parameters                                                               \
	{                                                                                          \
		int error = points_pass(#name);                                                    \
                                                                                                   \
		return error ? error : __real_##name arguments;                                    \
	}

POINT(file_chmod_fd, (int fd, uint16_t mode), (fd, mode))
POINT(file_create, (int dir, const char *name, uint16_t mode, int *ret_fd), (dir, name, mode, ret_fd))
POINT(file_exchange, (int d1, const char *n1, int d2, const char *n2), (d1, n1, d2, n2))
POINT(file_fsync, (int fd), (fd))
POINT(file_link, (int d1, const char *n1, int d2, const char *n2), (d1, n1, d2, n2))
POINT(file_mkdir, (int dir, const char *name, uint16_t mode), (dir, name, mode))
POINT(file_rename_noreplace, (int d1, const char *n1, int d2, const char *n2), (d1, n1, d2, n2))
POINT(file_rename_replace, (int d1, const char *n1, int d2, const char *n2), (d1, n1, d2, n2))
POINT(file_rmdir, (int dir, const char *name), (dir, name))
POINT(file_set_mtime_fd, (int fd, int64_t mtime_ns), (fd, mtime_ns))
POINT(file_symlink, (const char *target, int dir, const char *name), (target, dir, name))
POINT(file_syncfs, (int fd), (fd))
POINT(file_unlink, (int dir, const char *name), (dir, name))

int __real_index_commit(struct index_txn **txn);
int __wrap_index_commit(struct index_txn **txn);
int __wrap_index_commit(struct index_txn **txn)
{
	int error = points_pass("index_commit");

	if (!error)
		return __real_index_commit(txn);
	index_abort(*txn);
	*txn = NULL;
	return error;
}

#ifdef POINTS_LOOKS /* and every look (see the Makefile: look_points) */
int __real_file_lease_read(int fd);
int __wrap_file_lease_read(int fd);
int __wrap_file_lease_read(int fd)
{
	(void)points_pass("file_lease_read");
	return points.no_lease ? FILE_UNSUPPORTED : __real_file_lease_read(fd);
}
POINT(file_dir_open, (int dir, struct file_dir **ret), (dir, ret))
POINT(file_lease_release, (int fd), (fd))
POINT(file_open_read, (int dir, const char *name, int *ret_fd), (dir, name, ret_fd))
POINT(file_open_seen, (int dir, const char *name, int *ret_fd, struct file_stat *ret), (dir, name, ret_fd, ret))
POINT(file_stat_at, (int dir, const char *name, struct file_stat *ret), (dir, name, ret))
POINT(file_stat_fd, (int fd, struct file_stat *ret), (fd, ret))
#endif

#endif
