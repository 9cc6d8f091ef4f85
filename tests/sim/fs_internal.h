/*
 * tests/sim/fs_internal.h — what the parts of the simulated file system share; see tests/sim/fs.h.
 *
 *   fs.c          the world, hosts, disks, mounts, descriptors; what each call passes
 *   fs_tree.c     nodes, directories, operations on names and attributes, with the kernel's answers
 *   fs_content.c  bytes of files
 *   fs_crash.c    what is not durable yet; syncing and crashing
 *   fs_file.c     base/file.h
 *   fs_libc.c     libc for LMDB, and descriptors in libc's hands
 *   fs_user.c     users
 *   clock.c       base/clock.h, base/random.h
 *   digest.c      libcrypto's digests, remembered
 *
 * Functions return 0 or a negative errno; memory does not run out.
 */
#ifndef TESTS_SIM_FS_INTERNAL_H
#define TESTS_SIM_FS_INTERNAL_H

#include "tests/sim/fs.h"

#define PAGE_BYTES 4096
#define NODE_BYTES 256 /* that an inode takes of the capacity */
#define ROOT_INO 2
#define REGION_BYTES (UINT64_C(128) << 20) /* as large as an index may grow */

/* Up to PAGE_BYTES; what is beyond n is zeros. Shared; written in place only by its only owner. */
struct page {
	uint32_t refs;
	uint16_t n, cap;
	uint8_t bytes[];
};

/* A page of a file: as it is, and as it was when last synced. */
struct extent {
	uint64_t page;
	struct page *now; /* NULL: a hole. Of a mapped file: always NULL, the bytes are in the region */
	struct page *old; /* while dirty: what is durable; NULL: a hole, or behind the end */
	bool dirty;
	bool lost; /* dirty, but a failed sync made the kernel forget it */
};

struct attributes {
	uint64_t size;
	uint16_t mode;
	uint32_t uid, gid;
	int64_t mtime_ns, ctime_ns;
};

struct entry {
	uint32_t hash;
	bool covered; /* something is mounted here */
	char *name;
	struct node *node;
};

struct node {
	uint64_t ino;
	uint32_t generation;
	enum file_kind kind;
	uint32_t links;	  /* names that lead here; the root has one */
	uint32_t handles; /* open */
	uint32_t writers; /* of these, for writing */
	uint32_t pending; /* operations that name it and are not durable */
	bool released;	  /* no links and handles: the number is free, a crash may bring it back */
	bool looked_into; /* by the program, some time */
	bool shown_time;  /* its ctime was, since it changed */
	bool attributes_dirty, listed; /* listed: in the disk's list of what may be dirty */
	size_t at; /* in the disk's nodes */
	struct attributes now, durable;
	int64_t btime_ns;
	uint64_t size_min; /* since the last sync */
	struct handle *locker;
	/* regular files */
	struct extent *extents;
	size_t n_extents, cap_extents;
	uint8_t *region; /* REGION_BYTES: LMDB maps it; then all bytes are here */
	uint64_t allocated; /* bytes of the capacity */
	/* directories */
	struct node *parent; /* NULL: the root, or removed */
	struct entry *entries; /* by hash, then name */
	size_t n_entries, cap_entries;
	uint32_t subdirectories;
	char *target; /* symlinks */
	/* the watcher's, but for the first two, which are zeroed as is said */
	uint32_t known;	     /* when the content changes */
	bool user_wrote;     /* set when a user changes the content, zeroed when that is durable */
	bool shown, was_shown, users; /* in the tree; at some time; by a user's act */
	uint64_t was_at; /* the path, hashed, from where a user last moved it */
	bool returned;	 /* a user moved it back to there */
};

/* One name's part in an operation: what it led to before and after. */
struct side {
	struct node *dir, *before, *after;
	char *name;
	uint32_t hash;
};

struct operation {
	struct side side[2];
	unsigned n;
	bool rename; /* not an exchange: side 0 is the old name */
	struct node *made; /* came into being with it */
};

/* Who is told before a name changes (but for a new node's: after), and before content does. sim.user: by a user. */
struct sim_watcher {
	void (*names)(struct sim_disk *d, const struct operation *o, void *data);
	void (*content)(struct sim_disk *d, struct node *n, void *data);
	void *data;
};

struct sim_disk {
	struct sim_host *host;
	struct sim_disk_options options;
	uint64_t number, dev, mount, id, hash_seed, random; /* number: of the trace */
	struct node **nodes;
	size_t n_nodes, cap_nodes;
	struct node *root;
	uint64_t *inos; /* bits: in use */
	size_t n_inos, cap_inos;
	uint64_t next_ino;
	int64_t finest_ns; /* when a time that was finer than the clock's ticks was given last */
	uint64_t used;
	size_t handles;
	struct operation *log;
	size_t n_log, cap_log;
	struct node **dirty;
	size_t n_dirty, cap_dirty;
	bool read_only, killed;
	uint64_t calls;
	struct sim_fault *faults;
	size_t n_faults, cap_faults;
	sim_hook *hook;
	void *hook_data;
	const struct sim_watcher *watcher; /* NULL: nobody. Not copied with the disk */
};

enum lease { LEASE_NONE, LEASE_READ, LEASE_BROKEN };

/* An open file description. */
struct handle {
	struct sim_disk *disk;
	struct node *node; /* NULL: taken by a crash */
	uint32_t refs;
	bool write, durable_writes;
	enum lease lease;
	uint64_t offset; /* for LMDB's writev */
};

struct sim_host {
	uint64_t random;
	int64_t wall_ns, suspended_ns; /* wall clock less the world's; time that its monotonic clock missed */
	uint32_t uid, gid;
	uint16_t umask;
	uint64_t number;
};

/* --- fs.c --- */

extern struct sim_world {
	bool begun, user; /* user: what runs is a user's, not the program's */
	uint64_t random, trace;
	int64_t now_ns; /* since boot */
	struct sim_host **hosts;
	size_t n_hosts, cap_hosts;
	struct sim_host *host;
	struct sim_disk **disks;
	size_t n_disks, cap_disks;
	uint64_t next_dev, next_disk, next_mount;
	struct sim_disk *top; /* "/" */
	struct mount {
		char name[64];
		struct sim_disk *disk;
	} *mounts;
	size_t n_mounts, cap_mounts;
	struct descriptor {
		struct handle *handle;
		uint32_t generation;
	} *descriptors;
	size_t n_descriptors, cap_descriptors, open, low_descriptor; /* low: below it all are open */
} sim;

_Noreturn void sim_fatal(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
void *sim_alloc(size_t n); /* zeroed */
void sim_grow(void *array_p, size_t *cap, size_t need, size_t element_bytes);

/* Every call passes here first: counts it, and says with which errno it fails (0: it does not). */
int sim_enter(struct sim_disk *d, enum sim_call call);
/* And here last: traces r, and returns it. */
int sim_leave(struct sim_disk *d, enum sim_call call, int r);

bool sim_is_fd(int fd);
struct handle *sim_handle(int fd);
int sim_open(struct sim_disk *d, struct node *n, bool write);
int sim_dup(int fd);
void sim_dup_over(int fd, int onto); /* dup3: both are open */
void sim_close(int fd);
void sim_handles_lost(struct sim_disk *d); /* of the disk: closed, but for their numbers */
struct sim_disk *sim_mounted(const char *name, size_t n); /* NULL */
int64_t sim_wall_ns(const struct sim_host *h);

/* --- fs_tree.c --- */

enum { MAY_READ = 4, MAY_WRITE = 2, MAY_SEARCH = 1 };
bool node_may(const struct node *n, int what);
bool node_mine(const struct node *n); /* its owner, or root */

struct node *node_new(struct sim_disk *d, enum file_kind kind, uint16_t mode);
void node_free(struct sim_disk *d, struct node *n); /* whatever it is */
void node_let_go(struct sim_disk *d, struct node *n); /* frees it if nothing holds it */
void node_stamp(struct sim_disk *d, struct node *n, bool mtime); /* ctime, and mtime, are now */
void node_written(struct sim_disk *d, struct node *n); /* its content: as that, and what others than root lose by it */
void node_stat(const struct sim_disk *d, struct node *n, struct file_stat *ret);
void inos_rebuild(struct sim_disk *d);

uint32_t tree_hash(const struct sim_disk *d, const char *name);
struct entry *tree_find(const struct sim_disk *d, const struct node *dir, const char *name);
/* Make a name lead to a node, or to nothing, without asking or stamping anything. */
void tree_set(struct sim_disk *d, struct node *dir, const char *name, struct node *n);

int tree_lookup(struct sim_disk *d, struct node *dir, const char *name, struct entry **ret);
int tree_resolve(struct sim_disk *d, struct node *from, const char *path, struct node **ret); /* directories only */
int tree_make(struct sim_disk *d, struct node *dir, const char *name, enum file_kind kind, uint16_t mode,
	const char *target, struct node **ret);
int tree_remove(struct sim_disk *d, struct node *dir, const char *name, bool directory);
int tree_link(struct sim_disk *d, struct node *from_dir, const char *from, struct node *dir, const char *name);
enum rename { RENAME_OVER, RENAME_NEW, RENAME_BOTH };
int tree_rename(struct sim_disk *d, struct node *from_dir, const char *from, struct node *to_dir, const char *to,
	enum rename how);
int node_chmod(struct sim_disk *d, struct node *n, uint16_t mode);
int node_chown(struct sim_disk *d, struct node *n, uint32_t uid, uint32_t gid);
int node_touch(struct sim_disk *d, struct node *n, int64_t mtime_ns);
/* Open for writing breaks leases: -EAGAIN. */
int node_break_leases(struct node *n);
bool node_lease_broken(const struct node *n); /* and not released yet */

/* --- fs_content.c --- */

struct page *page_ref(struct page *p); /* NULL is harmless, as for the next */
void page_unref(struct page *p);
struct page *page_cut(const struct page *p, size_t n); /* a copy of its beginning */
void content_free(struct sim_disk *d, struct node *n);
void content_map(struct sim_disk *d, struct node *n); /* gives it a region */
bool content_is_region(const void *p);
void content_copy_region(struct node *to, const struct node *from);

size_t content_read(const struct node *n, void *ret, size_t len, uint64_t offset);
int content_write(struct sim_disk *d, struct node *n, const void *p, size_t len, uint64_t offset); /* part of it, if full */
int content_resize(struct sim_disk *d, struct node *n, uint64_t size);
int content_clear(struct sim_disk *d, struct node *n, uint64_t offset, uint64_t end); /* a hole; the size stays */
/* The next data at or behind offset; false: only hole up to the end. */
bool content_data(const struct node *n, uint64_t offset, uint64_t *ret_from, uint64_t *ret_to);
void content_share(struct sim_disk *d, struct node *to, const struct node *from); /* all of it, as a reflink does */
void content_count(struct sim_disk *d, struct node *n); /* how much it takes, anew */
/* Without bookkeeping: what a crash leaves. */
void content_set_page(struct node *n, struct extent *e, struct page *p);
void content_trim(struct node *n, uint64_t size);

/* --- fs_crash.c --- */

/* An operation was done. `made` may be NULL. */
void crash_log(struct sim_disk *d, const struct operation *o);
void crash_log_free(struct sim_disk *d);
void crash_dirty(struct sim_disk *d, struct node *n);
void crash_forget(struct sim_disk *d, struct node *n); /* it is freed */
int crash_fsync(struct sim_disk *d, struct node *n, int error); /* error: fails with that, and drops */
int crash_sync_all(struct sim_disk *d, int error);
void crash_sync_range(struct sim_disk *d, struct node *n, uint64_t offset, uint64_t len); /* O_DSYNC */

#endif
