/*
 * tests/sim/fs.h — machines of a simulation: clocks, randomness, disks. Everything is in memory and follows from one seed.
 *
 * Programs linked with these objects have no base/file, base/clock and base/random of their own: fs_file.c implements all
 * of base/file.h on the disks here, clock.c the clocks and randomness, and fs_libc.c the few calls of libc by which LMDB
 * reads, writes and maps an index (its "file" is memory of ours, so that an index is part of its disk: it crashes, fills
 * up, is cloned and restored with it; nothing is opened, mapped or synced for it). Linked before the archives.
 *
 *   host   a machine: wall clock, stream of random numbers, user; one is current, the one whose code runs
 *   disk   a file system: a tree of nodes, and what of it is not durable yet
 *   mount  "/name" → disk; "/" holds nothing else, and is on another device. Paths given to file_open_directory are absolute
 *   call   a call of base/file.h, or of LMDB, on a disk: each is counted, traced, may fail, and may be stepped in at
 *
 * One world at a time; one thread. A descriptor is a number from SIM_FD on. Using one that was closed, or that a crash took,
 * ends the program: it is a fault of the code under test.
 *
 * What a crash leaves (sim_disk_crash): what was synced, and of the rest:
 *
 *   data        each page of 4 KiB by itself is as it was when last synced, or as it is now, or (now and then) torn between two
 *               sectors; the size is as it was, as it is, as small as it once was since, or at a page between; what is then
 *               missing reads as zeros. SIM_ORDERED: a file has grown only over what was written, and was cut short only
 *               together with its times; what is overwritten in place is as above (but in a last page that is shorter
 *               only with tails_lost: what came before it was counted on by histories that are kept)
 *   attributes  of a file (mode, owner, times) as they were or as they are; as they are, where newer data or size survives
 *               (unless those are younger than stale_ns: then new data of the same size may stand beneath old times, as ext4 writes
 *               data before it commits inodes). New times above old data are always possible
 *   names       operations (create, link, unlink, rename, exchange), each whole, by enum sim_order:
 *
 *     SIM_ORDERED    a prefix, which contains what was done before the last sync of anything: the journals of ext4 and xfs
 *     SIM_UNORDERED  any subset that keeps the three rules by which file systems stay whole (soft updates): no name before
 *                    what it names (and its directory) was made; nothing used anew before its old name went; no last name
 *                    removed before the next one is there. Of one name, earlier operations before later ones. Syncing a directory
 *                    makes durable what touched it, and what that needs; syncing a file its data and attributes only:
 *                    btrfs (its log of single inodes), f2fs, and what POSIX promises
 *     SIM_SPLIT      as before, and a rename may have made the new name without removing the old one: ext2, FAT, UFS. (Neither
 *                    name is left on some of these; nothing a program does helps against that.) Exchanges stay whole: such
 *                    file systems have none
 *
 * An fsync that fails has dropped what it was to write: it is in the cache still (or, by chance, gone at once), the next fsync
 * succeeds, a crash brings the old bytes back. Not what a user wrote: that would be lost unseen, whatever a program does; it
 * stays to be written. fdatasync is fsync; a write through O_DSYNC (LMDB's meta page) is durable.
 */
#ifndef TESTS_SIM_FS_H
#define TESTS_SIM_FS_H

#include "base/file.h"

#define SIM_FD (1 << 30)

struct sim_host;
struct sim_disk;

/* --- the world --- */

void sim_begin(uint64_t seed); /* no hosts, no disks, an hour after boot; ends the world before */
void sim_end(void);	       /* frees everything */

/* A stream of random numbers is a uint64_t that its owner keeps. */
uint64_t sim_random(uint64_t *stream);
size_t sim_below(uint64_t *stream, size_t n); /* 0 if n is 0 */
bool sim_one_in(uint64_t *stream, unsigned n);

/* What happened so far, as a number: host, call, result and sizes of each call. Equal runs have equal ones. */
uint64_t sim_trace(void);
void sim_trace_add(uint64_t what); /* something of the simulator's own */

void sim_advance(int64_t ns); /* each call takes 1 µs by itself */

/* --- hosts --- */

/* The first one is entered. uid 0, umask 022, wall clocks within a second of each other in 2020. */
struct sim_host *sim_host_new(void);
void sim_host_enter(struct sim_host *h); /* its clocks, randomness, and user are what programs see from now on */
void sim_host_user(struct sim_host *h, uint32_t uid, uint32_t gid);
void sim_host_jump(struct sim_host *h, int64_t ns);    /* someone sets the wall clock */
void sim_host_suspend(struct sim_host *h, int64_t ns); /* everybody's time goes on, but not its monotonic clock */

/* --- disks --- */

enum sim_order { SIM_ORDERED, SIM_UNORDERED, SIM_SPLIT };

struct sim_disk_options {
	struct file_abilities abilities; /* what file_probe will find */
	bool hard_links, generations, birth_times;
	bool decomposes;   /* fold_unicode: names are stored decomposed, whatever was given */
	bool new_inodes;   /* a number is never used again; else the lowest free one is taken, at once */
	bool rename_ctime; /* a rename changes the ctime of what is moved (xfs: not) */
	int64_t tick_ns;   /* stamps that the file system makes are as coarse as that (at least time_granularity_ns) */
	uint64_t capacity; /* bytes; 0: no end */
	enum sim_order order;
	int64_t stale_ns;
	bool tails_lost;
	bool never_crashes; /* nothing is kept for a crash: cheaper */
};

/* All abilities but folding, nanoseconds, the lowest inode, no end, SIM_ORDERED. */
extern const struct sim_disk_options sim_disk_usual;

struct sim_disk *sim_disk_new(struct sim_host *h, const struct sim_disk_options *options); /* NULL: usual */
void sim_disk_free(struct sim_disk *d);
/* All of it as it is now, what is not durable included: crash the copy to have what a snapshot of a running machine would
 * be. Faults and hooks are not copied. */
struct sim_disk *sim_disk_clone(const struct sim_disk *d, struct sim_host *h);
/* Becomes what `from` is; keeps host, mounts, faults, hook. Open descriptors are lost, as by a crash. */
void sim_disk_restore(struct sim_disk *d, const struct sim_disk *from);

/* Mount over what is at "/name" now, and take the uppermost away. Descriptors stay. A disk that nobody has open gets another
 * device number with each mount; what is a mount point is not below a disk, so something else can be mounted there first. */
void sim_mount(struct sim_disk *d, const char *path);
void sim_unmount(const char *path);
/* A mount of something else over a name on the disk. */
int sim_cover(struct sim_disk *d, const char *path, bool covered);

/* --- what goes wrong --- */

#define SIM_CALLS(X)                                                                                                  \
	X(OPEN_ROOT) X(OPEN_DIRECTORY) X(OPEN_READ) X(OPEN_WRITE) X(CREATE_FILE) X(STAT_FD) X(STAT_AT) X(READLINK)         \
	X(GENERATION) X(SYSTEM_ID) X(SPACE) X(DIR_OPEN) X(DIR_NEXT) X(READ) X(WRITE) X(TRUNCATE_FILE) X(NEXT_DATA)         \
	X(CLONE) X(COPY) X(MKDIR) X(SYMLINK) X(UNLINK) X(RMDIR) X(RENAME) X(EXCHANGE) X(LINK) X(CHMOD) X(CHOWN)       \
	X(SET_MTIME) X(NODUMP) X(FSYNC) X(SYNCFS) X(WRITEBACK) X(LEASE) X(UNLEASE) X(LOCK)                            \
	X(INDEX_OPEN) X(INDEX_READ) X(INDEX_WRITE) X(INDEX_SYNC)
enum sim_call {
#define X(name) SIM_##name,
	SIM_CALLS(X)
#undef X
	SIM_CALL_COUNT
};
const char *sim_call_name(enum sim_call call);
#define SIM_BIT(call) (UINT64_C(1) << SIM_##call)
#define SIM_ANY (~UINT64_C(0))
/* What changes a disk. */
#define SIM_CHANGES                                                                                                   \
	(SIM_BIT(CREATE_FILE) | SIM_BIT(WRITE) | SIM_BIT(TRUNCATE_FILE) | SIM_BIT(CLONE) | SIM_BIT(COPY) | SIM_BIT(MKDIR) |     \
		SIM_BIT(SYMLINK) | SIM_BIT(UNLINK) | SIM_BIT(RMDIR) | SIM_BIT(RENAME) | SIM_BIT(EXCHANGE) |           \
		SIM_BIT(LINK) | SIM_BIT(CHMOD) | SIM_BIT(CHOWN) | SIM_BIT(SET_MTIME) | SIM_BIT(NODUMP) |              \
		SIM_BIT(FSYNC) | SIM_BIT(SYNCFS) | SIM_BIT(INDEX_WRITE) | SIM_BIT(INDEX_SYNC))

/* Calls of these kinds fail with `error`: after `after` of them, `times` times (0: always), one in `one_in` (0: each).
 * A write that fails may have written its beginning; a sync that fails has dropped its data. */
struct sim_fault {
	uint64_t calls; /* SIM_BIT()s */
	int error;	/* ENOSPC … */
	uint64_t after, times;
	unsigned one_in;
};
void sim_disk_fault(struct sim_disk *d, const struct sim_fault *f);
void sim_disk_heal(struct sim_disk *d); /* no faults any more */
void sim_disk_read_only(struct sim_disk *d, bool read_only);
void sim_disk_capacity(struct sim_disk *d, uint64_t bytes); /* 0: no end; may be below what is used */
uint64_t sim_disk_used(const struct sim_disk *d);
bool sim_disk_leases(const struct sim_disk *d); /* it can tell that a file is open for writing */

/* Before each call on the disk; `n` counts them from 1. It may do anything but jump away: to end a machine at this call,
 * kill it: this call and all later ones fail with EIO and change nothing, so that the code under test unwinds and can be
 * closed. Then sim_disk_crash (power is lost) or sim_disk_revive (only the process was killed). */
typedef void sim_hook(struct sim_disk *d, enum sim_call call, uint64_t n, void *data);
void sim_disk_hook(struct sim_disk *d, sim_hook *hook, void *data);
uint64_t sim_disk_calls(const struct sim_disk *d);
void sim_disk_kill(struct sim_disk *d);
bool sim_disk_killed(const struct sim_disk *d);
void sim_disk_revive(struct sim_disk *d);

void sim_disk_crash(struct sim_disk *d, uint64_t *stream);
/* The kernel writes something back by itself: part of what could survive a crash is durable from now on. */
void sim_disk_writeback(struct sim_disk *d, uint64_t *stream);
void sim_disk_sync(struct sim_disk *d); /* sync(1) */

/* --- users --- */
/*
 * Programs that don't wait for syncd, with rights to everything. Paths are relative to the disk's root; "" is the root; no
 * symlink is followed but the last one by nothing. 0 or a negative errno; a lease in the way is broken, and -EAGAIN: try
 * again when the program under test had its turn. Not counted, not traced, without faults (but a full or read-only disk is one).
 */
enum { SIM_CREATE = 1, SIM_TRUNCATE = 2 };

int sim_user_open(struct sim_disk *d, const char *path, int flags); /* for writing: a descriptor, or < 0 */
int sim_user_write_fd(int fd, const void *p, size_t n, uint64_t offset);
void sim_user_close(int fd);
/* Stores through a writable mapping: while `fd` is open they move no time stamp. */
int sim_user_store(int fd, const void *p, size_t n, uint64_t offset);

/* In place: open, truncate, write, close. */
int sim_user_write(struct sim_disk *d, const char *path, const void *p, size_t n);
int sim_user_append(struct sim_disk *d, const char *path, const void *p, size_t n);
int sim_user_truncate(struct sim_disk *d, const char *path, uint64_t size);
/* Other bytes of the same size, and the mtime as it was (only ctime tells). */
int sim_user_rewrite(struct sim_disk *d, const char *path, const void *p, size_t n);
int sim_user_read(struct sim_disk *d, const char *path, void *ret, size_t n, size_t *ret_n); /* of a symlink: its target */
int sim_user_stat(struct sim_disk *d, const char *path, struct file_stat *ret);
int sim_user_mkdir(struct sim_disk *d, const char *path, uint16_t mode);
int sim_user_symlink(struct sim_disk *d, const char *path, const char *target);
int sim_user_unlink(struct sim_disk *d, const char *path);
int sim_user_rmdir(struct sim_disk *d, const char *path);
int sim_user_remove(struct sim_disk *d, const char *path); /* rm -rf; -ENOENT */
int sim_user_rename(struct sim_disk *d, const char *from, const char *to);
int sim_user_exchange(struct sim_disk *d, const char *path1, const char *path2);
int sim_user_link(struct sim_disk *d, const char *from, const char *to);
int sim_user_chmod(struct sim_disk *d, const char *path, uint16_t mode);
int sim_user_chown(struct sim_disk *d, const char *path, uint32_t uid, uint32_t gid);
int sim_user_touch(struct sim_disk *d, const char *path, int64_t mtime_ns);
int sim_user_fsync(struct sim_disk *d, const char *path);
/* cp -a: new inodes, the old mtimes; `to` must not be there. */
int sim_user_copy(struct sim_disk *from, const char *from_path, struct sim_disk *to, const char *to_path);
/* Everything below `path`, parents first, names in byte order. Non-zero ends it, and is returned. */
typedef int sim_user_see(const char *path, const struct file_stat *st, void *data);
int sim_user_walk(struct sim_disk *d, const char *path, sim_user_see *see, void *data);

/* --- for tests of the simulator --- */

void sim_disk_check(const struct sim_disk *d); /* its bookkeeping; ends the program if it is wrong */
size_t sim_open_descriptors(void);

#endif
