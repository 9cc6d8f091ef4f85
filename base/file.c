/*
 * base/file.c — see base/file.h.
 *
 * Invariants:
 *   - every descriptor is close-on-exec; no descriptor's offset is used (lseek only asks for data
 *     and holes), so that threads may share one;
 *   - a name is opened through open_beneath() alone, which crosses neither a symlink nor a mount;
 *   - what is opened is known to be of the wanted kind before (so that no fifo's writer is woken and
 *     no device is touched) and after (so that a swap in between is noticed);
 *   - only what is a race or a refusal is an outcome; what was lost on its way to a disk is an error.
 */
#include "base/file_internal.h"

#include <assert.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <linux/openat2.h>
#include <signal.h>
#include <stdalign.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/uio.h>
#include <sys/utsname.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "base/defect.h"

#define DIR_BUFFER_BYTES 32768
#define COPY_BUFFER_BYTES 65536
#define NS_PER_S INT64_C(1000000000)

/* What statfs(2) calls these, where linux/magic.h may be older than the kernel. */
#define MAGIC_EXT 0xef53
#define MAGIC_BTRFS 0x9123683eU
#define MAGIC_ZFS 0x2fc12fc1U
#define MAGIC_XFS 0x58465342U
#define MAGIC_TMPFS 0x01021994U

/* FS_IOC_GETFSUUID of Linux 6.9. */
struct file_system_uuid {
	uint8_t len;
	uint8_t uuid[16];
};
#define FILE_IOC_GETFSUUID _IOR(0x15, 0, struct file_system_uuid)
#ifndef RWF_DONTCACHE /* of Linux 6.14 */
#define RWF_DONTCACHE 0x80
#endif
#define FILE_STATX_MOUNT 0x4000U /* STATX_MNT_ID_UNIQUE of Linux 6.8 */

/* --- outcomes --- */

/* The outcome of a system call that returned r. */
static int outcome_of(long r)
{
	return r < 0 ? file_outcome(errno) : 0;
}

/* --- opening --- */

/* The descriptor, or a negative errno. Without O_NOFOLLOW, which beside O_DIRECTORY makes a symlink
 * ENOTDIR. */
static int open_beneath(int dir, const char *path, uint64_t flags, uint16_t mode)
{
	struct open_how how = {
		.flags = flags | O_CLOEXEC,
		.mode = mode,
		.resolve = DEFECT(SYMLINK_FOLLOWED) ? 0
						    : RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS |
							      RESOLVE_NO_XDEV,
	};
	long fd = TEMP_FAILURE_RETRY(syscall(SYS_openat2, dir, path, &how, sizeof(how)));

	return fd < 0 ? -errno : (int)fd;
}

int file_open_directory(const char *path, int *ret_fd)
{
	int fd = TEMP_FAILURE_RETRY(open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC));

	if (fd < 0)
		return file_outcome(errno);
	*ret_fd = fd;
	return 0;
}

/* `path` is valid, or "." for the root itself. */
static int open_directory_beneath(int root, const char *path, int *ret_fd)
{
	int fd = open_beneath(root, path, O_RDONLY | O_DIRECTORY, 0);

	if (fd < 0)
		return file_outcome(-fd);
	*ret_fd = fd;
	return 0;
}

int file_open_directory_at(int root, const char *path, int *ret_fd)
{
	int r;

	if (!*path)
		return open_directory_beneath(root, ".", ret_fd);
	r = file_check_path(path);
	return r ? r : open_directory_beneath(root, path, ret_fd);
}

int file_open_parent(int root, const char *path, int *ret_dir, const char **ret_name)
{
	char parent[FILE_PATH_BYTES_MAX + 1] = ".";
	const char *slash;
	int r;

	r = file_check_path(path);
	if (r < 0)
		return r;
	slash = strrchr(path, '/');
	if (slash) {
		memcpy(parent, path, (size_t)(slash - path));
		parent[slash - path] = 0;
	}
	r = open_directory_beneath(root, parent, ret_dir);
	if (r == 0)
		*ret_name = slash ? slash + 1 : path;
	return r;
}

/* What was just seen to be a regular file. */
static int open_seen(int dir, const char *name, uint64_t access, int *ret_fd, struct file_stat *ret)
{
	const uint64_t flags = access | O_NONBLOCK | O_NOCTTY | O_LARGEFILE;
	cleanup_close int fd = -1;
	struct file_stat st;
	int r;

	fd = open_beneath(dir, name, flags | O_NOATIME, 0);
	if (fd == -EPERM) /* only the owner may leave the access time alone */
		fd = open_beneath(dir, name, flags, 0);
	if (fd == -EAGAIN)
		return FILE_BUSY;
	if (fd == -ELOOP || fd == -EISDIR || fd == -ENXIO || fd == -ENODEV)
		return FILE_UNSUPPORTED; /* became something else after the look */
	if (fd < 0)
		return file_outcome(-fd);
	r = file_stat_fd(fd, &st);
	if (r)
		return r;
	if (st.kind != FILE_KIND_REGULAR)
		return FILE_UNSUPPORTED;
	*ret_fd = steal_fd(fd);
	*ret = st;
	return 0;
}

/* An existing regular file; anything else is not opened. */
static int open_regular(int dir, const char *name, uint64_t access, int *ret_fd)
{
	struct file_stat st;
	int r = file_stat_at(dir, name, &st);

	if (r)
		return r;
	if (st.kind != FILE_KIND_REGULAR)
		return FILE_UNSUPPORTED;
	return open_seen(dir, name, access, ret_fd, &st);
}

int file_open_seen(int dir, const char *name, int *ret_fd, struct file_stat *ret)
{
	int r = file_check_name(name);

	return r ? r : open_seen(dir, name, O_RDONLY, ret_fd, ret);
}

int file_open_read(int dir, const char *name, int *ret_fd)
{
	return open_regular(dir, name, O_RDONLY, ret_fd);
}

int file_open_write(int dir, const char *name, int *ret_fd)
{
	return open_regular(dir, name, O_RDWR, ret_fd);
}

int file_create(int dir, const char *name, uint16_t mode, int *ret_fd)
{
	int r, fd;

	assert(!(mode & ~07777));
	r = file_check_name(name);
	if (r < 0)
		return r;
	fd = open_beneath(dir, name, O_RDWR | O_CREAT | O_EXCL | O_LARGEFILE, mode);
	if (fd < 0)
		return file_outcome(-fd);
	*ret_fd = fd;
	return 0;
}

/* --- looking --- */

/* Time stamps may be anything on a disk: 64 bits of seconds do not fit, so they saturate. */
static int64_t ns_of(struct statx_timestamp t)
{
	int64_t ns;

	if (__builtin_mul_overflow(t.tv_sec, NS_PER_S, &ns) ||
		__builtin_add_overflow(ns, (int64_t)t.tv_nsec, &ns))
		return t.tv_sec < 0 ? INT64_MIN : INT64_MAX;
	return ns;
}

static enum file_kind kind_of(uint16_t mode)
{
	switch (mode & S_IFMT) {
	case S_IFREG:
		return FILE_KIND_REGULAR;
	case S_IFDIR:
		return FILE_KIND_DIRECTORY;
	case S_IFLNK:
		return FILE_KIND_SYMLINK;
	default:
		return FILE_KIND_OTHER;
	}
}

static struct file_stat stat_of(const struct statx *x)
{
	return (struct file_stat){
		.kind = kind_of(x->stx_mode),
		.mode = x->stx_mode & 07777,
		.uid = x->stx_uid,
		.gid = x->stx_gid,
		.nlink = x->stx_nlink,
		.size = x->stx_size,
		.blocks = x->stx_blocks,
		.ino = x->stx_ino,
		.dev = makedev(x->stx_dev_major, x->stx_dev_minor),
		.mtime_ns = ns_of(x->stx_mtime),
		.ctime_ns = ns_of(x->stx_ctime),
		.btime_ns = x->stx_mask & STATX_BTIME ? ns_of(x->stx_btime) : 0,
	};
}

static int look(int fd, const char *name, int flags, struct statx *ret)
{
	const unsigned mask = STATX_BASIC_STATS | STATX_BTIME;

	if (TEMP_FAILURE_RETRY(statx(fd, name, flags | AT_NO_AUTOMOUNT, mask, ret)) < 0)
		return file_outcome(errno);
	return 0;
}

int file_stat_fd(int fd, struct file_stat *ret)
{
	struct statx x;
	int r;

	r = look(fd, "", AT_EMPTY_PATH, &x);
	if (r == 0)
		*ret = stat_of(&x);
	return r;
}

int file_stat_at(int dir, const char *name, struct file_stat *ret)
{
	struct statx x;
	int r;

	r = file_check_name(name);
	if (r < 0)
		return r;
	r = look(dir, name, AT_SYMLINK_NOFOLLOW, &x);
	if (r)
		return r;
	if (x.stx_attributes & STATX_ATTR_MOUNT_ROOT)
		return FILE_OUTSIDE;
	*ret = stat_of(&x);
	return 0;
}

int file_readlink(int dir, const char *name, char **ret)
{
	char target[FILE_PATH_BYTES_MAX + 2];
	ssize_t n;
	char *copy;
	int r;

	r = file_check_name(name);
	if (r < 0)
		return r;
	n = TEMP_FAILURE_RETRY(readlinkat(dir, name, target, sizeof(target)));
	if (n < 0)
		return file_outcome(errno);
	if ((size_t)n == sizeof(target))
		return -ENAMETOOLONG;
	copy = strndup(target, (size_t)n);
	if (!copy)
		return -ENOMEM;
	*ret = copy;
	return 0;
}

int file_generation(int fd, uint64_t *ret)
{
	/* The number says long, file systems write an int, and FUSE copies a long. */
	union {
		long l;
		unsigned generation;
	} v = {0};

	if (TEMP_FAILURE_RETRY(ioctl(fd, FS_IOC_GETVERSION, &v)) < 0)
		return file_outcome(errno);
	*ret = v.generation;
	return 0;
}

int file_system_id(int fd, uint64_t *ret)
{
	struct file_system_uuid u = {0};
	uint64_t id = 0, half[2];
	struct statfs s;

	if (TEMP_FAILURE_RETRY(fstatfs(fd, &s)) < 0)
		return file_outcome(errno);
	switch ((uint32_t)s.f_type) {
	case MAGIC_EXT: /* made from the UUID; for most other types it is the device number */
	case MAGIC_BTRFS:
	case MAGIC_ZFS:
		memcpy(&id, &s.f_fsid, sizeof(id));
		break;
	default:
		if (ioctl(fd, FILE_IOC_GETFSUUID, &u) < 0 || u.len != sizeof(u.uuid))
			break;
		memcpy(half, u.uuid, sizeof(half));
		id = half[0] ^ half[1];
	}
	*ret = id;
	return 0;
}

/* Hexadecimal digits and dashes. */
static int boot_id(uint8_t ret[16])
{
	char text[37] = "";
	cleanup_close int fd = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);
	const char *p = text;

	if (fd < 0 || TEMP_FAILURE_RETRY(read(fd, text, sizeof(text) - 1)) != (ssize_t)sizeof(text) - 1)
		return FILE_UNSUPPORTED;
	for (int i = 0; i < 16; i++) {
		unsigned byte;

		p += *p == '-';
		if (sscanf(p, "%2x", &byte) != 1)
			return FILE_UNSUPPORTED;
		ret[i] = (uint8_t)byte;
		p += 2;
	}
	return 0;
}

int file_mounted_as(int fd, struct file_mount *ret)
{
	struct file_mount m = {0};
	struct statx x;

	if (statx(fd, "", AT_EMPTY_PATH, FILE_STATX_MOUNT, &x) < 0)
		return file_outcome(errno);
	if (!(x.stx_mask & FILE_STATX_MOUNT) || boot_id(m.boot) != 0)
		return FILE_UNSUPPORTED;
	m.id = x.stx_mnt_id;
	*ret = m;
	return 0;
}

bool file_maybe_multigrain(int fd)
{
	struct statfs s;

	if (TEMP_FAILURE_RETRY(fstatfs(fd, &s)) < 0)
		return false;
	switch ((uint32_t)s.f_type) {
	case MAGIC_EXT:
	case MAGIC_XFS:
	case MAGIC_BTRFS:
	case MAGIC_TMPFS:
		return true;
	default:
		return false;
	}
}

static uint64_t bytes_of(uint64_t blocks, uint64_t block_bytes)
{
	uint64_t bytes;

	return __builtin_mul_overflow(blocks, block_bytes, &bytes) ? UINT64_MAX : bytes;
}

int file_space(int fd, uint64_t *ret_free_bytes, uint64_t *ret_total_bytes)
{
	struct statvfs s;

	if (TEMP_FAILURE_RETRY(fstatvfs(fd, &s)) < 0)
		return file_outcome(errno);
	*ret_free_bytes = bytes_of(s.f_bavail, s.f_frsize);
	*ret_total_bytes = bytes_of(s.f_blocks, s.f_frsize);
	return 0;
}

/* --- listing --- */

/* Not readdir(3): glibc tells a removed directory as an ordinary end. */
struct file_dir {
	int fd;	    /* owned */
	size_t at;  /* next entry in `entries` */
	size_t len; /* bytes in use */
	alignas(struct dirent64) char entries[DIR_BUFFER_BYTES];
};

int file_dir_open(int dir, struct file_dir **ret)
{
	const uint64_t flags = O_RDONLY | O_DIRECTORY;
	struct file_dir *d;
	int fd;

	fd = open_beneath(dir, ".", flags | O_NOATIME, 0);
	if (fd == -EPERM)
		fd = open_beneath(dir, ".", flags, 0);
	if (fd < 0)
		return file_outcome(-fd);
	d = malloc(sizeof(*d));
	if (!d) {
		close_keep(fd);
		return -ENOMEM;
	}
	d->fd = fd;
	d->at = d->len = 0;
	*ret = d;
	return 0;
}

void file_dir_close(struct file_dir *d)
{
	if (!d)
		return;
	close_keep(d->fd);
	free(d);
}

int file_dir_next(struct file_dir *d, const char **ret_name)
{
	for (;;) {
		const struct dirent64 *entry;

		if (d->at == d->len) {
			ssize_t n = TEMP_FAILURE_RETRY(
				getdents64(d->fd, d->entries, sizeof(d->entries)));

			if (n < 0)
				return -errno;
			if (n == 0)
				return FILE_END;
			d->at = 0;
			d->len = (size_t)n;
		}
		entry = (const struct dirent64 *)(d->entries + d->at);
		d->at += entry->d_reclen;
		if (strcmp(entry->d_name, ".") && strcmp(entry->d_name, "..")) {
			*ret_name = entry->d_name;
			return 0;
		}
	}
}

/* --- reading and writing --- */

static bool range_fits(uint64_t offset, uint64_t n)
{
	return offset <= INT64_MAX && n <= INT64_MAX - offset;
}

/* Linux 6.14 and 6.15 have the flag, but their file systems may free a page too early. */
static bool uncached_is_sound(void)
{
	static atomic_int known; /* 1: it is, -1: it is not */
	struct utsname u;
	unsigned major = 0, minor = 0;

	if (!known)
		known = uname(&u) == 0 && sscanf(u.release, "%u.%u", &major, &minor) == 2 && (major > 6 || (major == 6 && minor >= 16)) ? 1 : -1;
	return known > 0;
}

static ssize_t read_some(int fd, void *ret, size_t n, off_t offset, bool uncached)
{
	if (uncached && uncached_is_sound()) {
		struct iovec v = {ret, n};
		ssize_t got = preadv2(fd, &v, 1, offset, RWF_DONTCACHE);

		if (got >= 0 || errno != EOPNOTSUPP)
			return got;
	}
	return pread(fd, ret, n, offset);
}

int file_read_as(int fd, void *ret, size_t n, uint64_t offset, bool uncached, size_t *ret_n)
{
	char *at = ret;
	size_t done = 0;

	if (!range_fits(offset, n))
		return -EFBIG;
	while (done < n) {
		ssize_t got = read_some(fd, at + done, n - done, (off_t)(offset + done), uncached);

		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0)
			return -errno;
		if (got == 0)
			break;
		done += (size_t)got;
	}
	*ret_n = done;
	return 0;
}

int file_read(int fd, void *ret, size_t n, uint64_t offset, size_t *ret_n)
{
	return file_read_as(fd, ret, n, offset, false, ret_n);
}

static ssize_t write_some(int fd, const void *p, size_t n, off_t offset, bool uncached)
{
	if (uncached && uncached_is_sound()) {
		struct iovec v = {(void *)(uintptr_t)p, n}; /* it is only read */
		ssize_t put = pwritev2(fd, &v, 1, offset, RWF_DONTCACHE);

		if (put >= 0 || errno != EOPNOTSUPP)
			return put;
	}
	return pwrite(fd, p, n, offset);
}

int file_write_as(int fd, const void *p, size_t n, uint64_t offset, bool uncached)
{
	const char *at = p;

	if (!range_fits(offset, n))
		return -EFBIG;
	while (n) {
		ssize_t put = write_some(fd, at, n, (off_t)offset, uncached);

		if (put < 0 && errno == EINTR)
			continue;
		if (put < 0)
			return -errno;
		if (put == 0)
			return -EIO; /* nobody promises that it ends */
		at += put;
		n -= (size_t)put;
		offset += (uint64_t)put;
	}
	return 0;
}

int file_write(int fd, const void *p, size_t n, uint64_t offset)
{
	return file_write_as(fd, p, n, offset, false);
}

int file_truncate(int fd, uint64_t size)
{
	if (size > INT64_MAX)
		return -EFBIG;
	return TEMP_FAILURE_RETRY(ftruncate(fd, (off_t)size)) < 0 ? -errno : 0;
}

int file_next_data(int fd, uint64_t offset, uint64_t size, uint64_t *ret_from, uint64_t *ret_to)
{
	off_t from, to;

	if (offset >= size)
		return FILE_END;
	if (size > INT64_MAX)
		return -EFBIG;
	from = TEMP_FAILURE_RETRY(lseek(fd, (off_t)offset, SEEK_DATA));
	if (from < 0 && errno == ENXIO)
		return FILE_END;
	if (from < 0 && file_outcome(errno) != FILE_UNSUPPORTED)
		return file_outcome(errno);
	if (from < 0)
		from = (off_t)offset;
	if ((uint64_t)from >= size)
		return FILE_END;
	to = TEMP_FAILURE_RETRY(lseek(fd, from, SEEK_HOLE));
	if (to <= from || (uint64_t)to > size) /* unsupported, truncated or punched meanwhile */
		to = (off_t)size;
	*ret_from = (uint64_t)from;
	*ret_to = (uint64_t)to;
	return 0;
}

int file_clone(int from, int to)
{
	if (TEMP_FAILURE_RETRY(ioctl(to, FICLONE, from)) < 0)
		return errno == EXDEV ? FILE_UNSUPPORTED : file_outcome(errno);
	return 0;
}

/* In user space, whatever the file systems are. FILE_END: the source is shorter. */
static int copy_by_hand(int from, uint64_t from_offset, int to, uint64_t to_offset, uint64_t n)
{
	cleanup_free char *buffer = malloc(COPY_BUFFER_BYTES);
	int r;

	if (!buffer)
		return -ENOMEM;
	while (n) {
		size_t want = n < COPY_BUFFER_BYTES ? (size_t)n : COPY_BUFFER_BYTES, got;

		r = file_read(from, buffer, want, from_offset, &got);
		if (r < 0)
			return r;
		r = file_write(to, buffer, got, to_offset);
		if (r < 0)
			return r;
		if (got < want)
			return FILE_END;
		from_offset += got;
		to_offset += got;
		n -= got;
	}
	return 0;
}

/* A range without holes. */
static int copy_data(int from, uint64_t from_offset, int to, uint64_t to_offset, uint64_t n)
{
	while (n) {
		off_t in = (off_t)from_offset, out = (off_t)to_offset;
		ssize_t done = copy_file_range(from, &in, to, &out, n, 0);

		if (done < 0 && errno == EINTR)
			continue;
		if (done < 0 && (errno == ENOSPC || errno == EDQUOT || errno == EIO ||
					errno == EROFS || errno == EFBIG))
			return -errno;
		if (done <= 0) /* unable here; and some file systems say 0 for that */
			return copy_by_hand(from, from_offset, to, to_offset, n);
		from_offset += (uint64_t)done;
		to_offset += (uint64_t)done;
		n -= (uint64_t)done;
	}
	return 0;
}

static int write_zeros(int fd, uint64_t offset, uint64_t n)
{
	static const char zeros[4096];
	int r;

	while (n) {
		size_t now = n < sizeof(zeros) ? (size_t)n : sizeof(zeros);

		r = file_write(fd, zeros, now, offset);
		if (r < 0)
			return r;
		offset += now;
		n -= now;
	}
	return 0;
}

/* Make [offset, end) read as zeros, touching only what does not already. `size` is the file's. */
static int clear_range(int fd, uint64_t offset, uint64_t end, uint64_t size)
{
	uint64_t data, hole;
	int r;

	if (end > size)
		end = size;
	while (!(r = file_next_data(fd, offset, end, &data, &hole))) {
		const int how = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;

		r = TEMP_FAILURE_RETRY(fallocate(fd, how, (off_t)data, (off_t)(hole - data)));
		r = r < 0 ? file_outcome(errno) : 0;
		if (r == FILE_UNSUPPORTED)
			r = write_zeros(fd, data, hole - data);
		if (r)
			return r;
		offset = hole;
	}
	return r == FILE_END ? 0 : r;
}

/* Extend to `size` with a hole. Not by ftruncate, which would cut off what another thread just
 * wrote behind our look at the size. */
static int grow(int fd, uint64_t size)
{
	struct file_stat st;
	int r;

	r = file_stat_fd(fd, &st);
	if (r || st.size >= size)
		return r;
	return file_write(fd, "", 1, size - 1);
}

int file_copy_range(int from, uint64_t from_offset, int to, uint64_t to_offset, uint64_t n)
{
	uint64_t at = from_offset, end = from_offset + n, shift = to_offset - from_offset;
	struct file_stat source, target;
	int r;

	if (!range_fits(from_offset, n) || !range_fits(to_offset, n))
		return -EFBIG;
	r = file_stat_fd(from, &source);
	if (r == 0)
		r = file_stat_fd(to, &target);
	if (r)
		return r;
	if (source.size < end)
		return FILE_END;
	while (at < end) {
		uint64_t data, hole;

		r = file_next_data(from, at, end, &data, &hole);
		if (r == FILE_END)
			data = hole = end;
		else if (r)
			return r;
		r = clear_range(to, at + shift, data + shift, target.size);
		if (r == 0)
			r = copy_data(from, data, to, data + shift, hole - data);
		if (r)
			return r;
		at = hole;
	}
	return n ? grow(to, to_offset + n) : 0;
}

/* --- changing names --- */

int file_mkdir(int dir, const char *name, uint16_t mode)
{
	int r = file_check_name(name);

	assert(!(mode & ~07777));
	return r ? r : outcome_of(TEMP_FAILURE_RETRY(mkdirat(dir, name, mode)));
}

int file_symlink(const char *target, int dir, const char *name)
{
	int r = file_check_name(name);

	if (r == 0 && !*target)
		r = -EINVAL;
	if (r)
		return r;
	r = outcome_of(TEMP_FAILURE_RETRY(symlinkat(target, dir, name)));
	return r == FILE_DENIED && errno == EPERM ? FILE_UNSUPPORTED : r;
}

int file_unlink(int dir, const char *name)
{
	int r = file_check_name(name);

	return r ? r : outcome_of(TEMP_FAILURE_RETRY(unlinkat(dir, name, 0)));
}

int file_rmdir(int dir, const char *name)
{
	int r = file_check_name(name);

	if (r == 0)
		r = outcome_of(TEMP_FAILURE_RETRY(unlinkat(dir, name, AT_REMOVEDIR)));
	return r == FILE_EXISTS ? FILE_NOT_EMPTY : r; /* POSIX lets file systems choose */
}

static int rename_as(int from_dir, const char *from, int to_dir, const char *to, unsigned flags)
{
	int r = file_check_names(from, to);

	if (r)
		return r;
	return outcome_of(TEMP_FAILURE_RETRY(renameat2(from_dir, from, to_dir, to, flags)));
}

int file_rename_noreplace(int from_dir, const char *from, int to_dir, const char *to)
{
	return rename_as(from_dir, from, to_dir, to, RENAME_NOREPLACE);
}

int file_rename_replace(int from_dir, const char *from, int to_dir, const char *to)
{
	int r = rename_as(from_dir, from, to_dir, to, 0);

	return r == FILE_EXISTS ? FILE_NOT_EMPTY : r;
}

int file_exchange(int dir1, const char *name1, int dir2, const char *name2)
{
	return rename_as(dir1, name1, dir2, name2, RENAME_EXCHANGE);
}

int file_link(int from_dir, const char *from, int to_dir, const char *to)
{
	int r = file_check_names(from, to);

	return r ? r : outcome_of(TEMP_FAILURE_RETRY(linkat(from_dir, from, to_dir, to, 0)));
}

/* --- attributes --- */

int file_chmod_fd(int fd, uint16_t mode)
{
	assert(!(mode & ~07777));
	return outcome_of(TEMP_FAILURE_RETRY(fchmod(fd, mode)));
}

int file_chown_fd(int fd, uint32_t uid, uint32_t gid)
{
	return outcome_of(TEMP_FAILURE_RETRY(fchown(fd, uid, gid)));
}

/* Pin a symlink itself, so that what is changed is known to be one. Where it can't be reached nothing is said about what may be
 * set: -EACCES. */
static int open_symlink(int dir, const char *name, int *ret_fd)
{
	cleanup_close int fd = -1;
	struct file_stat st;
	int r;

	r = file_check_name(name);
	if (r < 0)
		return r;
	fd = open_beneath(dir, name, O_PATH | O_NOFOLLOW, 0);
	if (fd == -EACCES)
		return fd;
	if (fd < 0)
		return file_outcome(-fd);
	r = file_stat_fd(fd, &st);
	if (r)
		return r;
	if (st.kind != FILE_KIND_SYMLINK)
		return FILE_UNSUPPORTED;
	*ret_fd = steal_fd(fd);
	return 0;
}

int file_chown_at(int dir, const char *name, uint32_t uid, uint32_t gid)
{
	cleanup_close int fd = -1;
	int r;

	r = open_symlink(dir, name, &fd);
	return r ? r : outcome_of(TEMP_FAILURE_RETRY(fchownat(fd, "", uid, gid, AT_EMPTY_PATH)));
}

/* For utimensat: the access time is left alone. */
static void times_of(int64_t mtime_ns, struct timespec ret[2])
{
	int64_t s = mtime_ns / NS_PER_S, ns = mtime_ns % NS_PER_S;

	if (ns < 0) { /* division rounds towards 1970, time stamps towards the past */
		s--;
		ns += NS_PER_S;
	}
	ret[0] = (struct timespec){.tv_nsec = UTIME_OMIT};
	ret[1] = (struct timespec){.tv_sec = s, .tv_nsec = ns};
}

int file_set_mtime_fd(int fd, int64_t mtime_ns)
{
	struct timespec times[2];

	times_of(mtime_ns, times);
	return outcome_of(TEMP_FAILURE_RETRY(futimens(fd, times)));
}

int file_set_mtime_at(int dir, const char *name, int64_t mtime_ns)
{
	cleanup_close int fd = -1;
	struct timespec times[2];
	int r;

	r = open_symlink(dir, name, &fd);
	if (r)
		return r;
	times_of(mtime_ns, times);
	return outcome_of(TEMP_FAILURE_RETRY(utimensat(fd, "", times, AT_EMPTY_PATH)));
}

static int add_flag(int fd, int flag)
{
	int flags;

	if (ioctl(fd, FS_IOC_GETFLAGS, &flags) < 0)
		return file_outcome(errno);
	if (flags & flag)
		return 0;
	flags |= flag;
	return outcome_of(ioctl(fd, FS_IOC_SETFLAGS, &flags));
}

int file_set_hints(int fd)
{
	int r = add_flag(fd, FS_NODUMP_FL);

	if (r == 0)
		(void)add_flag(fd, FS_TOPDIR_FL); /* ext4 alone has it */
	return r;
}

/* --- durability and exclusion --- */

/* A lost write must not look like a race (NFS reports a refused one as EACCES): only "cannot be synced"
 * is an outcome. */
static int sync_outcome(int r)
{
	if (r == 0)
		return 0;
	r = file_outcome(errno);
	return r == FILE_UNSUPPORTED ? r : -errno;
}

int file_fsync(int fd)
{
	return sync_outcome(TEMP_FAILURE_RETRY(fsync(fd)));
}

int file_syncfs(int fd)
{
	return sync_outcome(TEMP_FAILURE_RETRY(syncfs(fd)));
}

int file_start_writeback(int fd)
{
	return sync_outcome(TEMP_FAILURE_RETRY(sync_file_range(fd, 0, 0, SYNC_FILE_RANGE_WRITE)));
}

int file_lease_read(int fd)
{
	if (fcntl(fd, F_SETSIG, SIGURG) < 0)
		return file_outcome(errno);
	if (TEMP_FAILURE_RETRY(fcntl(fd, F_SETLEASE, F_RDLCK)) == 0)
		return 0;
	switch (errno) {
	case EAGAIN:
		return FILE_BUSY;
	case EACCES:
	case EPERM:
	case ENOLCK:
		return FILE_UNSUPPORTED;
	default:
		return file_outcome(errno);
	}
}

bool file_lease_broken(int fd)
{
	/* of one that is to go this says already what it is to become */
	return fcntl(fd, F_GETLEASE) != F_RDLCK;
}

int file_lease_release(int fd)
{
	int held = fcntl(fd, F_GETLEASE);

	if (held < 0)
		return file_outcome(errno);
	/* EAGAIN: the kernel took it away after its waiting time. */
	if (TEMP_FAILURE_RETRY(fcntl(fd, F_SETLEASE, F_UNLCK)) < 0 && errno != EAGAIN)
		return file_outcome(errno);
	return held == F_RDLCK ? 0 : FILE_BUSY;
}

int file_lock(int fd)
{
	if (TEMP_FAILURE_RETRY(flock(fd, LOCK_EX | LOCK_NB)) == 0)
		return 0;
	return errno == EWOULDBLOCK ? FILE_BUSY : file_outcome(errno);
}
