/*
 * base/file.h — the only place that makes file-system calls (the index's LMDB maps its own file).
 * The simulator links its own version of this module.
 *
 * Confinement (P9): a path below a root is resolved once, with openat2(RESOLVE_BENEATH |
 * RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS | RESOLVE_NO_XDEV), to the descriptor of its parent
 * directory; everything after that names a single component under a held descriptor and never follows a
 * symlink, nor opens or changes what is mounted over a name. A `path` parameter beneath a root is
 * relative, of non-empty components without "." and ".."; a `name` parameter is one such component.
 * Others are -EINVAL, too long ones -ENAMETOOLONG. Needs Linux 5.8.
 *
 * Races of the file system are the positive outcomes of enum file_outcome. Those that a function's
 * callers should expect stand at it; any of the others may come too, and means what it says here.
 * A name that the file system refuses (characters, encoding) is FILE_UNSUPPORTED.
 *
 * No function blocks on another process' fifo or lease. Modes are subject to the umask where an object
 * is created. Stateless, so thread-safe as far as the descriptors given are.
 */
#ifndef BASE_FILE_H
#define BASE_FILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/error.h"

#define FILE_NAME_BYTES_MAX 255	  /* one component, without NUL */
#define FILE_PATH_BYTES_MAX 4095  /* a path below the root, without NUL */
#define FILE_DEPTH_MAX 256	  /* components of a path */

enum file_outcome {
	FILE_VANISHED = 1, /* ENOENT, ENOTDIR: the name, or a directory on the way, is not there (or is none) */
	FILE_EXISTS,	   /* EEXIST */
	FILE_NOT_EMPTY,	   /* ENOTEMPTY */
	FILE_IS_DIRECTORY, /* EISDIR */
	FILE_DENIED,	   /* EACCES, EPERM */
	FILE_OUTSIDE,	   /* ELOOP, EXDEV: a symlink or a mount on the way */
	FILE_UNSUPPORTED,  /* EOPNOTSUPP, ENOTTY, ENOSYS, EINVAL of a flag: this file system can't */
	FILE_BUSY,	   /* EBUSY, ETXTBSY, EAGAIN of a lease or lock: someone has it open */
	FILE_END,	   /* no more entries or data */
};

/* Words for people for an int of either sign that a function here returned; static, thread-safe. */
const char *file_error_text(int r);

enum file_kind {
	FILE_KIND_REGULAR,
	FILE_KIND_DIRECTORY,
	FILE_KIND_SYMLINK,
	FILE_KIND_OTHER, /* fifo, socket, device */
};

struct file_stat {
	enum file_kind kind;
	uint16_t mode;	   /* permission bits with setuid, setgid, sticky (07777) */
	uint32_t uid, gid;
	uint32_t nlink;
	uint64_t size;	   /* bytes */
	uint64_t blocks;   /* of 512 bytes, allocated */
	uint64_t ino;
	uint64_t dev;	   /* only comparable within one mount of one boot */
	int64_t mtime_ns, ctime_ns; /* beyond the years 1677 to 2262: the nearest that fits */
	int64_t btime_ns;  /* 0 where the file system has none */
};

/* --- opening --- */

/* Open a directory named by a user (symlinks on the way are fine). FILE_VANISHED, FILE_DENIED. */
int file_open_directory(const char *path, int *ret_fd);
/* Open a directory at `path` ("" = the root itself) beneath root, O_RDONLY|O_DIRECTORY. FILE_VANISHED
 * (also where something else has the name), FILE_OUTSIDE, FILE_DENIED. */
int file_open_directory_at(int root, const char *path, int *ret_fd);
/* Open the directory that holds `path`; *ret_name points at the last component inside `path`. The same
 * outcomes. */
int file_open_parent(int root, const char *path, int *ret_dir, const char **ret_name);
/* Open a regular file for reading, O_NONBLOCK|O_NOATIME where allowed. Another kind (a
 * symlink, a directory …): FILE_UNSUPPORTED, without opening it. Another process' lease on it: FILE_BUSY,
 * and the lease is being broken: try again later. */
int file_open_read(int dir, const char *name, int *ret_fd);
/* The same for a name that file_stat_at has just shown to be a regular file, which saves another look before it is opened;
 * *ret: what was opened. */
int file_open_seen(int dir, const char *name, int *ret_fd, struct file_stat *ret);
/* Open an existing regular file for reading and writing. The same outcomes. */
int file_open_write(int dir, const char *name, int *ret_fd);
/* Create a new regular file O_RDWR|O_EXCL. FILE_EXISTS (a dangling symlink too). */
int file_create(int dir, const char *name, uint16_t mode, int *ret_fd);

/* --- looking --- */

int file_stat_fd(int fd, struct file_stat *ret);
/* lstat; a name that something is mounted on: FILE_OUTSIDE. One system call. */
int file_stat_at(int dir, const char *name, struct file_stat *ret);
/* *ret: heap, NUL-terminated. Another kind: FILE_UNSUPPORTED. */
int file_readlink(int dir, const char *name, char **ret);
/* FS_IOC_GETVERSION; FILE_UNSUPPORTED where there is none. */
int file_generation(int fd, uint64_t *ret);
/* An id of the file system that outlives remounts and reboots, made from its UUID; 0 where none is known
 * (a newer kernel may know one: treat 0 as unknown on either side of a comparison). */
int file_system_id(int fd, uint64_t *ret);
/* Where and since when a file system has been mounted: two equal ones say that it stayed mounted there and the machine ran on from the
 * one look to the other, so that nothing that was written was lost in between. Others say nothing. */
struct file_mount {
	uint8_t boot[16]; /* the kernel's boot_id */
	uint64_t id;	  /* never used again in the same boot */
};
/* FILE_UNSUPPORTED: nobody can tell (Linux before 6.8, no /proc). */
int file_mounted_as(int fd, struct file_mount *ret);
/* Free is what an unprivileged user may still take. */
int file_space(int fd, uint64_t *ret_free_bytes, uint64_t *ret_total_bytes);

/* Iterate a directory in no order, without "." and "..". The iterator opens the directory anew: it starts
 * at the beginning, and several may run at once. Needs search permission too. */
struct file_dir;
int file_dir_open(int dir, struct file_dir **ret);
void file_dir_close(struct file_dir *d);
DEFINE_CLEANUP(struct file_dir *, file_dir_close)
#define cleanup_file_dir cleanup(file_dir_close_p)
/* 0, FILE_END, or < 0 (the listing is incomplete: absences are unproven). A directory that was removed
 * meanwhile is -ENOENT, not FILE_END. *ret_name is valid until the next call. */
int file_dir_next(struct file_dir *d, const char **ret_name);
/* All of a directory's names, in no order; those already in *ret stay. 0; an outcome or < 0: of the listing, and *ret may have some. */
struct file_names {
	char **v; /* owned */
	size_t n, cap;
};
void file_names_deinit(struct file_names *names); /* and zero it */
int file_names_read(int dir, struct file_names *ret);

/* --- reading and writing; short transfers and EINTR are handled; no descriptor's offset is used --- */
/* Failures of read, write and truncate are negative errnos only, -EACCES and the like included. */

/* *ret_n < n only at end of file. */
int file_read(int fd, void *ret, size_t n, uint64_t offset, size_t *ret_n);
int file_write(int fd, const void *p, size_t n, uint64_t offset);
/* uncached: it is much that nobody looks at again soon. What was not in memory before does not stay there, and what is written is on its
 * way to the disk at once (RWF_DONTCACHE, Linux 6.16); where that can't be had it makes no difference. */
int file_read_as(int fd, void *ret, size_t n, uint64_t offset, bool uncached, size_t *ret_n);
int file_write_as(int fd, const void *p, size_t n, uint64_t offset, bool uncached);
int file_truncate(int fd, uint64_t size);
/* The next data range at or after offset and below size: [*ret_from, *ret_to), never empty. FILE_END if
 * only hole is left; where SEEK_DATA is unsupported, all is data. */
int file_next_data(int fd, uint64_t offset, uint64_t size, uint64_t *ret_from, uint64_t *ret_to);
/* Whole-file reflink; FILE_UNSUPPORTED. */
int file_clone(int from, int to);
/* Copy a range in the kernel, falling back to read and write. Where the source has holes, the target
 * reads as zeros afterwards and is a hole where its file system can (fresh space is left untouched). The
 * target grows to at least to_offset + n. FILE_END: the source is shorter; the target's range is then
 * undefined. The ranges must not overlap. */
int file_copy_range(int from, uint64_t from_offset, int to, uint64_t to_offset, uint64_t n);

/* --- changing names; both directories are held descriptors --- */

int file_mkdir(int dir, const char *name, uint16_t mode); /* FILE_EXISTS */
/* FILE_EXISTS. FILE_UNSUPPORTED: a file system without symlinks (EPERM). */
int file_symlink(const char *target, int dir, const char *name);
int file_unlink(int dir, const char *name); /* FILE_IS_DIRECTORY */
int file_rmdir(int dir, const char *name);  /* FILE_NOT_EMPTY; not a directory: FILE_VANISHED */
/* A directory into itself is FILE_UNSUPPORTED too. */
int file_rename_noreplace(int from_dir, const char *from, int to_dir, const char *to); /* FILE_EXISTS */
/* FILE_NOT_EMPTY, FILE_IS_DIRECTORY. Where both are names of one inode, nothing happens: both stay. */
int file_rename_replace(int from_dir, const char *from, int to_dir, const char *to);
/* FILE_VANISHED: one of them is not there. FILE_UNSUPPORTED. */
int file_exchange(int dir1, const char *name1, int dir2, const char *name2);
/* FILE_EXISTS; of a directory, or where there are no hard links: FILE_DENIED. */
int file_link(int from_dir, const char *from, int to_dir, const char *to);

/* --- attributes --- */

int file_chmod_fd(int fd, uint16_t mode);
int file_chown_fd(int fd, uint32_t uid, uint32_t gid);
/* Of a symlink itself; another kind: FILE_UNSUPPORTED (a descriptor says what is being changed); in a directory that may not
 * be searched: -EACCES, as FILE_DENIED says that this is not ours to set. */
int file_chown_at(int dir, const char *name, uint32_t uid, uint32_t gid);
int file_set_mtime_fd(int fd, int64_t mtime_ns); /* atime is left alone */
int file_set_mtime_at(int dir, const char *name, int64_t mtime_ns); /* of a symlink itself, likewise */
/* For the directory of our own state: dump(8) leaves it out (chattr +d), and ext4 makes directories in it where there is most room (+T), not
 * near it, so that what is made in them is not looked for among inodes that were just deleted (README.md of the benchmarks).
 * FILE_UNSUPPORTED: not even the first. */
int file_set_hints(int fd);

/* --- durability and exclusion --- */

/* Failures are negative errnos, and final: the kernel reports lost pages once, so a second try proves
 * nothing. FILE_UNSUPPORTED: this object cannot be synced (directories of some network file systems). */
int file_fsync(int fd);
int file_syncfs(int fd);
int file_start_writeback(int fd); /* sync_file_range(WRITE): begins, does not wait */
/* Take a read lease on a regular file opened for reading only. FILE_BUSY: open for writing or mapped
 * writable; FILE_UNSUPPORTED: can't tell (not the owner, or the file system has none). While it is held,
 * whoever opens the file for writing waits, 45 s at most: hold it briefly. The kernel's notice to us is
 * SIGURG, which is ignored unless the program wants it, instead of the deadly SIGIO. */
int file_lease_read(int fd);
/* Is it over, or does somebody wait for it? If not, it has held since it was taken. Cheap: no look at the disk. */
bool file_lease_broken(int fd);
/* FILE_BUSY: released, but it had been broken: someone is opening the file for writing, or already has. */
int file_lease_release(int fd);
/* Exclusive flock without waiting; released with the last descriptor. FILE_BUSY. */
int file_lock(int fd);

/* --- what this file system can do, tried out --- */

struct file_abilities {
	bool exchange;	     /* RENAME_EXCHANGE */
	bool no_replace;     /* RENAME_NOREPLACE */
	bool reflink;	     /* FICLONE */
	bool lease;	     /* F_SETLEASE */
	bool symlink;
	bool fold_case;	     /* two names differing in case are one */
	bool fold_unicode;   /* composed and decomposed names are one */
	bool exact_times;    /* a change gets a ctime that no stat has shown before (Linux 6.13: ext4, XFS, Btrfs, tmpfs) */
	int64_t time_granularity_ns; /* of mtimes set: 1, 100, 1000, 1e6, 1e7, 1e9 or 2e9 */
};

#define FILE_PROBE_PREFIX ".probe-" /* a crash in file_probe may leave a directory so named: file_probe_remove */

/* Works inside a scratch directory of its own, made in dir and removed. */
int file_probe(int dir, struct file_abilities *ret);
int file_probe_remove(int dir, const char *name); /* FILE_NOT_EMPTY: something else is in it, too */

#endif
