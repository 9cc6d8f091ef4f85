/*
 * tests/sim/fs_libc.c — the calls of libc by which our descriptors are duplicated and closed, and by which LMDB uses an index:
 * a program's own definitions come before the library's. Descriptors of the kernel go to the kernel. What an index maps
 * is its node's region, whatever length was asked for; LMDB only looks at as much as there is of the file. LMDB's lock file, which
 * merkle/index keeps in memory, is memory here as well, and no call of any disk.
 */
#undef _FILE_OFFSET_BITS /* so that these define the names that LMDB was linked with */
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include "tests/sim/fs_internal.h"

#define PID 4711
#define LOCK_FD (SIM_FD / 2) /* descriptors of lock files: from here on */
#define LOCKS_MAX 64
#define LOCK_BYTES_MAX 65536

static struct lock_file {
	unsigned descriptors;
	off_t size;
	uint8_t *bytes; /* LOCK_BYTES_MAX, kept for the next one that has this number; NULL: none yet */
} lock_files[LOCKS_MAX];

static long result(long r)
{
	if (r >= 0)
		return r;
	errno = (int)-r;
	return -1;
}

/* --- who asks --- */

uid_t geteuid(void)
{
	return sim.host ? sim.host->uid : (uid_t)syscall(SYS_geteuid);
}

pid_t getpid(void)
{
	return sim.begun ? PID : (pid_t)syscall(SYS_getpid);
}

/* --- lock files --- */

static struct lock_file *lock_file(int fd)
{
	return fd >= LOCK_FD && fd < LOCK_FD + LOCKS_MAX ? &lock_files[fd - LOCK_FD] : NULL;
}

int memfd_create(const char *name, unsigned flags)
{
	int i = 0;

	if (!sim.begun)
		return (int)syscall(SYS_memfd_create, name, flags);
	while (i < LOCKS_MAX && lock_files[i].descriptors)
		i++;
	if (i == LOCKS_MAX)
		sim_fatal("too many lock files");
	lock_files[i].descriptors = 1;
	return LOCK_FD + i;
}

static void lock_file_size(struct lock_file *l, off_t size)
{
	if (size > LOCK_BYTES_MAX)
		sim_fatal("a lock file is too large");
	if (!l->bytes)
		l->bytes = sim_alloc(LOCK_BYTES_MAX);
	if (size > l->size)
		memset(l->bytes + l->size, 0, (size_t)(size - l->size));
	l->size = size;
}

static void lock_file_close(struct lock_file *l)
{
	if (--l->descriptors == 0)
		l->size = 0;
}

static bool is_lock_file(const void *p)
{
	for (size_t i = 0; i < LOCKS_MAX; i++)
		if (lock_files[i].bytes && p == lock_files[i].bytes)
			return true;
	return false;
}

/* --- descriptors --- */

int close(int fd)
{
	if (lock_file(fd)) {
		lock_file_close(lock_file(fd));
		return 0;
	}
	if (!sim_is_fd(fd))
		return (int)syscall(SYS_close, fd);
	sim_close(fd);
	return 0;
}

int dup(int fd)
{
	return sim_is_fd(fd) ? (int)result(sim_dup(fd)) : (int)syscall(SYS_dup, fd);
}

int dup3(int fd, int onto, int flags)
{
	if (!sim_is_fd(fd))
		return (int)syscall(SYS_dup3, fd, onto, flags);
	sim_dup_over(fd, onto);
	return onto;
}

static int open_index(int dir, const char *name, int flags, mode_t mode)
{
	struct handle *h = sim_handle(dir);
	int r = -sim_enter(h->disk, SIM_INDEX_OPEN), fd = -1;
	bool write = (flags & O_ACCMODE) != O_RDONLY;
	struct node *n = NULL;
	struct entry *e;

	if (r == 0)
		r = tree_lookup(h->disk, h->node, name, &e);
	if (r == 0)
		n = e->node;
	if (r == -ENOENT && flags & O_CREAT)
		r = tree_make(h->disk, h->node, name, FILE_KIND_REGULAR, mode & 0777, NULL, &n);
	else if (r == 0 && !node_may(n, write ? MAY_READ | MAY_WRITE : MAY_READ))
		r = -EACCES;
	else if (r == 0 && write && h->disk->read_only)
		r = -EROFS;
	if (r == 0 && n->kind == FILE_KIND_SYMLINK && sscanf(n->target, "/proc/self/fd/%d", &fd) == 1 && lock_file(fd)) {
		sim_leave(h->disk, SIM_INDEX_OPEN, 0);
		lock_file(fd)->descriptors++;
		return fd;
	}
	if (r == 0 && n->kind != FILE_KIND_REGULAR)
		r = -ELOOP;
	if (r == 0)
		r = fd = sim_open(h->disk, n, write);
	if (fd >= 0)
		sim_handle(fd)->durable_writes = flags & O_DSYNC;
	sim_leave(h->disk, SIM_INDEX_OPEN, fd >= 0 ? 0 : r);
	return (int)result(r);
}

int open(const char *path, int flags, ...)
{
	mode_t mode = 0;
	int dir, at = 0;
	va_list args;

	va_start(args, flags);
	if (flags & (O_CREAT | O_TMPFILE))
		mode = va_arg(args, mode_t);
	va_end(args);
	if (sscanf(path, "/proc/self/fd/%d/%n", &dir, &at) == 1 && at && sim_is_fd(dir))
		return open_index(dir, path + at, flags, mode);
	return (int)syscall(SYS_openat, AT_FDCWD, path, flags, mode);
}

/* The process may be gone: then it can do nothing any more, but for closing. */
static bool gone(int fd)
{
	if (!sim_handle(fd)->disk->killed)
		return false;
	errno = EIO;
	return true;
}

int fcntl(int fd, int command, ...)
{
	va_list args;
	void *arg;

	va_start(args, command);
	arg = va_arg(args, void *);
	va_end(args);
	if (!sim_is_fd(fd) && !lock_file(fd))
		return (int)syscall(SYS_fcntl, fd, command, arg);
	if (command == F_GETLK) /* nobody else has an index open: base/store sees to that */
		((struct flock *)arg)->l_type = F_UNLCK;
	return 0;
}

int fstat(int fd, struct stat *ret)
{
	struct handle *h;

	if (!sim_is_fd(fd))
		return (int)syscall(SYS_fstat, fd, ret);
	if (gone(fd))
		return -1;
	h = sim_handle(fd);
	memset(ret, 0, sizeof(*ret));
	ret->st_size = (off_t)h->node->now.size;
	ret->st_mode = S_IFREG | h->node->now.mode;
	ret->st_ino = h->node->ino;
	ret->st_dev = h->disk->dev;
	ret->st_nlink = h->node->links;
	ret->st_blksize = PAGE_BYTES;
	return 0;
}

int __fxstat(int version, int fd, struct stat *ret); /* fstat, as older programs were linked */

int __fxstat(int version, int fd, struct stat *ret)
{
	(void)version;
	return fstat(fd, ret);
}

int fstatfs(int fd, struct statfs *ret)
{
	if (!sim_is_fd(fd))
		return (int)syscall(SYS_fstatfs, fd, ret);
	memset(ret, 0, sizeof(*ret));
	ret->f_bsize = PAGE_BYTES;
	return 0;
}

off_t lseek(int fd, off_t offset, int whence)
{
	struct handle *h;

	if (lock_file(fd)) /* how large is it? */
		return lock_file(fd)->size;
	if (!sim_is_fd(fd))
		return (off_t)syscall(SYS_lseek, fd, offset, whence);
	h = sim_handle(fd);
	if (whence == SEEK_END)
		offset += (off_t)h->node->now.size;
	else if (whence == SEEK_CUR)
		offset += (off_t)h->offset;
	h->offset = (uint64_t)offset;
	return offset;
}

/* --- bytes --- */

ssize_t pread(int fd, void *ret, size_t n, off_t offset)
{
	struct handle *h;
	int r;

	if (!sim_is_fd(fd))
		return (ssize_t)syscall(SYS_pread64, fd, ret, n, offset);
	h = sim_handle(fd);
	r = -sim_enter(h->disk, SIM_INDEX_READ);
	sim_leave(h->disk, SIM_INDEX_READ, r);
	return (ssize_t)result(r < 0 ? r : (long)content_read(h->node, ret, n, (uint64_t)offset));
}

static long write_pieces(struct handle *h, const struct iovec *pieces, int n, uint64_t offset)
{
	uint64_t from = offset;
	int r = -sim_enter(h->disk, SIM_INDEX_WRITE);

	if (r == 0 && h->disk->read_only)
		r = -EROFS;
	for (int i = 0; i < n && r == 0; i++) {
		r = content_write(h->disk, h->node, pieces[i].iov_base, pieces[i].iov_len, offset);
		if (r == 0)
			offset += pieces[i].iov_len;
	}
	if (offset > from) {
		node_stamp(h->disk, h->node, true);
		if (h->durable_writes)
			crash_sync_range(h->disk, h->node, from, offset - from);
	}
	sim_trace_add(offset - from);
	sim_leave(h->disk, SIM_INDEX_WRITE, r);
	return r < 0 ? r : (long)(offset - from);
}

ssize_t pwrite(int fd, const void *p, size_t n, off_t offset)
{
	const struct iovec piece = {.iov_base = (void *)p, .iov_len = n};

	if (!sim_is_fd(fd))
		return (ssize_t)syscall(SYS_pwrite64, fd, p, n, offset);
	return (ssize_t)result(write_pieces(sim_handle(fd), &piece, 1, (uint64_t)offset));
}

ssize_t pwritev(int fd, const struct iovec *pieces, int n, off_t offset)
{
	if (!sim_is_fd(fd))
		return (ssize_t)syscall(SYS_pwritev, fd, pieces, n, offset, 0L);
	return (ssize_t)result(write_pieces(sim_handle(fd), pieces, n, (uint64_t)offset));
}

ssize_t writev(int fd, const struct iovec *pieces, int n)
{
	struct handle *h;
	long r;

	if (!sim_is_fd(fd))
		return (ssize_t)syscall(SYS_writev, fd, pieces, n);
	h = sim_handle(fd);
	r = write_pieces(h, pieces, n, h->offset);
	if (r > 0)
		h->offset += (uint64_t)r;
	return (ssize_t)result(r);
}

int ftruncate(int fd, off_t size)
{
	struct handle *h;
	int r;

	if (lock_file(fd)) {
		lock_file_size(lock_file(fd), size);
		return 0;
	}
	if (!sim_is_fd(fd))
		return (int)syscall(SYS_ftruncate, fd, size);
	h = sim_handle(fd);
	r = -sim_enter(h->disk, SIM_INDEX_WRITE);
	if (r == 0)
		r = content_resize(h->disk, h->node, (uint64_t)size);
	return (int)result(sim_leave(h->disk, SIM_INDEX_WRITE, r));
}

static int sync_index(int fd)
{
	struct handle *h = sim_handle(fd);
	int e = sim_enter(h->disk, SIM_INDEX_SYNC);

	return (int)result(sim_leave(
		h->disk, SIM_INDEX_SYNC, h->disk->killed ? -e : crash_fsync(h->disk, h->node, e)));
}

int fdatasync(int fd)
{
	return sim_is_fd(fd) ? sync_index(fd) : (int)syscall(SYS_fdatasync, fd);
}

int fsync(int fd)
{
	return sim_is_fd(fd) ? sync_index(fd) : (int)syscall(SYS_fsync, fd);
}

/* --- maps --- */

void *mmap(void *at, size_t n, int protection, int flags, int fd, off_t offset)
{
	struct handle *h;

	if (lock_file(fd))
		return lock_file(fd)->bytes;
	if (!sim_is_fd(fd))
		return (void *)syscall(SYS_mmap, at, n, protection, flags, fd, offset);
	if (gone(fd))
		return MAP_FAILED;
	h = sim_handle(fd);
	content_map(h->disk, h->node);
	return h->node->region;
}

int munmap(void *at, size_t n)
{
	return content_is_region(at) || is_lock_file(at) ? 0 : (int)syscall(SYS_munmap, at, n);
}

int madvise(void *at, size_t n, int advice)
{
	return content_is_region(at) ? 0 : (int)syscall(SYS_madvise, at, n, advice);
}

int msync(void *at, size_t n, int flags)
{
	return content_is_region(at) ? 0 : (int)syscall(SYS_msync, at, n, flags);
}
