/* tests/sim/fs_file.c — all of base/file.h on simulated disks; see tests/sim/fs.h. */
#include "base/file_internal.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "tests/sim/fs_internal.h"

#define SYMLINKS_MAX 40
#define NO_END_BYTES (UINT64_C(1) << 50) /* of a disk without a capacity */

static int done(struct sim_disk *d, enum sim_call call, int r)
{
	r = sim_leave(d, call, r);
	return r < 0 ? file_outcome(-r) : r;
}

/* Opens what was found, traces. */
static int opened(struct sim_disk *d, enum sim_call call, struct node *n, bool write, int r, int *ret_fd)
{
	int fd = r < 0 ? r : sim_open(d, n, write);

	if (fd >= 0) {
		sim_trace_add(n->ino);
		*ret_fd = fd;
	}
	return done(d, call, fd < 0 ? fd : 0);
}

/* --- opening --- */

struct place {
	struct sim_disk *disk;
	struct node *node;
};

static int step(struct place *at, const char *name, size_t n, char *rest, size_t room, unsigned *links)
{
	char one[FILE_NAME_BYTES_MAX + 1], after[FILE_PATH_BYTES_MAX + 1];
	struct entry *e;
	int r;

	if (n > FILE_NAME_BYTES_MAX)
		return -ENAMETOOLONG;
	memcpy(one, name, n);
	one[n] = 0;
	if (strcmp(one, ".") == 0)
		return 0;
	if (strcmp(one, "..") == 0) {
		*at = at->node->parent ? (struct place){at->disk, at->node->parent} : (struct place){sim.top, sim.top->root};
		return 0;
	}
	if (at->disk == sim.top) {
		at->disk = sim_mounted(one, n);
		at->node = at->disk ? at->disk->root : NULL;
		return at->disk ? 0 : -ENOENT;
	}
	r = tree_lookup(at->disk, at->node, one, &e);
	if (r < 0)
		return r;
	if (e->node->kind != FILE_KIND_SYMLINK) {
		at->node = e->node;
		return 0;
	}
	if (++*links > SYMLINKS_MAX)
		return -ELOOP;
	strcpy(after, rest);
	if (strlen(e->node->target) + strlen(after) + 2 > room)
		return -ENAMETOOLONG;
	strcat(strcat(strcpy(rest, e->node->target), "/"), after);
	if (*rest == '/')
		*at = (struct place){sim.top, sim.top->root};
	return 0;
}

static int walk_by_name(const char *path, struct place *at)
{
	char rest[FILE_PATH_BYTES_MAX + 1], name[FILE_NAME_BYTES_MAX + 2];
	unsigned links = 0;
	int r = 0;

	if (*path != '/')
		return -ENOENT; /* nobody has a current directory here */
	if (strlen(path) > FILE_PATH_BYTES_MAX)
		return -ENAMETOOLONG;
	strcpy(rest, path);
	while (r == 0) {
		size_t skip = strspn(rest, "/"), n = strcspn(rest + skip, "/");

		if (!n)
			return at->node->kind == FILE_KIND_DIRECTORY ? 0 : -ENOTDIR;
		if (n > FILE_NAME_BYTES_MAX)
			return -ENAMETOOLONG;
		memcpy(name, rest + skip, n);
		memmove(rest, rest + skip + n, strlen(rest + skip + n) + 1);
		r = step(at, name, n, rest, sizeof(rest), &links);
	}
	return r;
}

int file_open_directory(const char *path, int *ret_fd)
{
	struct place at = {sim.top, sim.top->root};
	int r = walk_by_name(path, &at), e;

	if (!at.disk)
		at.disk = sim.top;
	e = sim_enter(at.disk, SIM_OPEN_ROOT);
	if (r == 0 && !node_may(at.node, MAY_READ))
		r = -EACCES;
	return opened(at.disk, SIM_OPEN_ROOT, at.node, false, e ? -e : r, ret_fd);
}

/* `path` is valid or "". */
static int open_directory_beneath(int root, const char *path, int *ret_fd)
{
	struct handle *h = sim_handle(root);
	struct node *n = NULL;
	int r = -sim_enter(h->disk, SIM_OPEN_DIRECTORY);

	if (r == 0)
		r = tree_resolve(h->disk, h->node, path, &n);
	if (r == 0 && n->kind != FILE_KIND_DIRECTORY)
		r = -ENOTDIR;
	if (r == 0 && !node_may(n, *path ? MAY_READ : MAY_READ | MAY_SEARCH)) /* "." is looked for in it */
		r = -EACCES;
	return opened(h->disk, SIM_OPEN_DIRECTORY, n, false, r, ret_fd);
}

int file_open_directory_at(int root, const char *path, int *ret_fd)
{
	int r = *path ? file_check_path(path) : 0;

	return r ? r : open_directory_beneath(root, path, ret_fd);
}

int file_open_parent(int root, const char *path, int *ret_dir, const char **ret_name)
{
	char parent[FILE_PATH_BYTES_MAX + 1];
	const char *slash;
	int r = file_check_path(path);
	size_t n;

	if (r < 0)
		return r;
	slash = strrchr(path, '/');
	n = slash ? (size_t)(slash - path) : 0;
	memcpy(parent, path, n);
	parent[n] = '\0';
	r = open_directory_beneath(root, parent, ret_dir);
	if (r == 0)
		*ret_name = slash ? slash + 1 : path;
	return r;
}

static int open_regular(int dir, const char *name, enum sim_call call, int *ret_fd)
{
	bool write = call == SIM_OPEN_WRITE;
	int r = file_check_name(name);
	struct node *n = NULL;
	struct handle *h;
	struct entry *e;

	if (r < 0)
		return r;
	h = sim_handle(dir);
	r = -sim_enter(h->disk, call);
	if (r == 0)
		r = tree_lookup(h->disk, h->node, name, &e);
	if (r == 0 && e->covered)
		r = -EXDEV;
	if (r == 0) {
		n = e->node;
		if (n->kind != FILE_KIND_REGULAR)
			r = -EOPNOTSUPP;
		else if (!node_may(n, write ? MAY_READ | MAY_WRITE : MAY_READ))
			r = -EACCES;
		else if (write && h->disk->read_only)
			r = -EROFS;
		else if (write && node_break_leases(n) < 0)
			r = -EBUSY;
	}
	return opened(h->disk, call, n, write, r, ret_fd);
}

int file_open_read(int dir, const char *name, int *ret_fd)
{
	return open_regular(dir, name, SIM_OPEN_READ, ret_fd);
}

int file_open_seen(int dir, const char *name, int *ret_fd, struct file_stat *ret)
{
	int fd, r = file_open_read(dir, name, &fd);

	if (r)
		return r;
	r = file_stat_fd(fd, ret);
	if (r)
		close_keep(fd);
	else
		*ret_fd = fd;
	return r;
}

int file_open_write(int dir, const char *name, int *ret_fd)
{
	return open_regular(dir, name, SIM_OPEN_WRITE, ret_fd);
}

int file_create(int dir, const char *name, uint16_t mode, int *ret_fd)
{
	struct node *n = NULL;
	struct handle *h;
	int r = file_check_name(name);

	assert(!(mode & ~07777));
	if (r < 0)
		return r;
	h = sim_handle(dir);
	r = -sim_enter(h->disk, SIM_CREATE_FILE);
	if (r == 0)
		r = tree_make(h->disk, h->node, name, FILE_KIND_REGULAR, mode, NULL, &n);
	return opened(h->disk, SIM_CREATE_FILE, n, true, r, ret_fd);
}

/* --- looking --- */

int file_stat_fd(int fd, struct file_stat *ret)
{
	struct handle *h = sim_handle(fd);
	int r = -sim_enter(h->disk, SIM_STAT_FD);

	if (r == 0)
		node_stat(h->disk, h->node, ret);
	return done(h->disk, SIM_STAT_FD, r);
}

/* Most calls: a name under a descriptor, which must be there. */
static int look(int dir, const char *name, enum sim_call call, struct handle **ret_dir, struct entry **ret)
{
	int r = file_check_name(name);

	*ret_dir = NULL;
	if (r < 0)
		return r;
	*ret_dir = sim_handle(dir);
	r = -sim_enter((*ret_dir)->disk, call);
	return r ? r : tree_lookup((*ret_dir)->disk, (*ret_dir)->node, name, ret);
}

int file_stat_at(int dir, const char *name, struct file_stat *ret)
{
	struct handle *h;
	struct entry *e;
	int r = look(dir, name, SIM_STAT_AT, &h, &e);

	if (!h)
		return r;
	if (r == 0 && e->covered)
		r = -EXDEV;
	if (r == 0) {
		node_stat(h->disk, e->node, ret);
		sim_trace_add(ret->ino << 32 ^ ret->size);
	}
	return done(h->disk, SIM_STAT_AT, r);
}

int file_readlink(int dir, const char *name, char **ret)
{
	struct handle *h;
	struct entry *e;
	int r = look(dir, name, SIM_READLINK, &h, &e);

	if (!h)
		return r;
	if (r == 0 && (e->covered || e->node->kind != FILE_KIND_SYMLINK))
		r = -EINVAL;
	if (r == 0) {
		*ret = strdup(e->node->target);
		e->node->looked_into = true;
	}
	return done(h->disk, SIM_READLINK, r);
}

int file_generation(int fd, uint64_t *ret)
{
	struct handle *h = sim_handle(fd);
	int r = -sim_enter(h->disk, SIM_GENERATION);

	if (r == 0 && !h->disk->options.generations)
		r = -ENOTTY;
	if (r == 0)
		*ret = h->node->generation;
	return done(h->disk, SIM_GENERATION, r);
}

int file_system_id(int fd, uint64_t *ret)
{
	struct handle *h = sim_handle(fd);
	int r = -sim_enter(h->disk, SIM_SYSTEM_ID);

	if (r == 0)
		*ret = h->disk->id;
	return done(h->disk, SIM_SYSTEM_ID, r);
}

int file_mounted_as(int fd, struct file_mount *ret)
{
	struct handle *h = sim_handle(fd);
	int r = -sim_enter(h->disk, SIM_SYSTEM_ID);

	if (r == 0)
		*ret = (struct file_mount){.id = h->disk->mount};
	return done(h->disk, SIM_SYSTEM_ID, r);
}

bool file_maybe_multigrain(int fd)
{
	return sim_handle(fd)->disk->options.abilities.exact_times;
}

int file_space(int fd, uint64_t *ret_free_bytes, uint64_t *ret_total_bytes)
{
	struct handle *h = sim_handle(fd);
	uint64_t total = h->disk->options.capacity ? h->disk->options.capacity : NO_END_BYTES;
	int r = -sim_enter(h->disk, SIM_SPACE);

	if (r == 0) {
		*ret_free_bytes = total > h->disk->used ? total - h->disk->used : 0;
		*ret_total_bytes = total;
	}
	return done(h->disk, SIM_SPACE, r);
}

/* --- listing --- */

/* What the first read finds is what is told, as if a buffer held it all. */
struct file_dir {
	int fd; /* owned */
	bool read;
	char *names; /* owned: one after the other */
	size_t at, n;
};

int file_dir_open(int dir, struct file_dir **ret)
{
	struct handle *h = sim_handle(dir);
	struct file_dir *x;
	int fd = -1, r = -sim_enter(h->disk, SIM_DIR_OPEN);

	if (r == 0 && h->node->kind != FILE_KIND_DIRECTORY)
		r = -ENOTDIR;
	if (r == 0 && !node_may(h->node, MAY_READ | MAY_SEARCH))
		r = -EACCES;
	r = opened(h->disk, SIM_DIR_OPEN, h->node, false, r, &fd);
	if (r)
		return r;
	x = sim_alloc(sizeof(*x));
	x->fd = fd;
	*ret = x;
	return 0;
}

void file_dir_close(struct file_dir *d)
{
	if (!d)
		return;
	sim_close(d->fd);
	free(d->names);
	free(d);
}

static void list(struct file_dir *x, const struct node *n)
{
	size_t bytes = 1;

	for (size_t i = 0; i < n->n_entries; i++)
		bytes += strlen(n->entries[i].name) + 1;
	x->names = sim_alloc(bytes);
	for (size_t i = 0; i < n->n_entries; i++) {
		size_t length = strlen(n->entries[i].name) + 1;

		memcpy(x->names + x->n, n->entries[i].name, length);
		x->n += length;
	}
	x->read = true;
}

int file_dir_next(struct file_dir *d, const char **ret_name)
{
	struct handle *h = sim_handle(d->fd);
	int r = -sim_enter(h->disk, SIM_DIR_NEXT);

	if (r == 0 && d->at == d->n && !h->node->links)
		r = -ENOENT;
	if (r < 0)
		return sim_leave(h->disk, SIM_DIR_NEXT, r);
	if (!d->read)
		list(d, h->node);
	if (d->at == d->n)
		return sim_leave(h->disk, SIM_DIR_NEXT, FILE_END);
	*ret_name = d->names + d->at;
	d->at += strlen(*ret_name) + 1;
	return sim_leave(h->disk, SIM_DIR_NEXT, 0);
}

/* --- reading and writing --- */

static bool range_fits(uint64_t offset, uint64_t n)
{
	return offset <= INT64_MAX && n <= INT64_MAX - offset;
}

int file_read(int fd, void *ret, size_t n, uint64_t offset, size_t *ret_n)
{
	struct handle *h = sim_handle(fd);
	int r;

	if (!range_fits(offset, n))
		return -EFBIG;
	if (!n) {
		*ret_n = 0;
		return 0;
	}
	r = -sim_enter(h->disk, SIM_READ);
	if (r == 0 && h->node->kind != FILE_KIND_REGULAR)
		r = -EISDIR;
	if (r == 0) {
		*ret_n = content_read(h->node, ret, n, offset);
		sim_trace_add(*ret_n);
	}
	return sim_leave(h->disk, SIM_READ, r);
}

/* What stays in memory is of no concern here. */
int file_read_as(int fd, void *ret, size_t n, uint64_t offset, bool uncached, size_t *ret_n)
{
	(void)uncached;
	return file_read(fd, ret, n, offset, ret_n);
}

/* For writing, truncating, cloning, copying. */
static int may_write(const struct handle *h, int if_not)
{
	if (!h->write)
		return if_not;
	return h->disk->read_only ? -EROFS : 0;
}

int file_write(int fd, const void *p, size_t n, uint64_t offset)
{
	struct handle *h = sim_handle(fd);
	int r, failed;

	if (!range_fits(offset, n))
		return -EFBIG;
	if (!n)
		return 0;
	r = -sim_enter(h->disk, SIM_WRITE);
	failed = r;
	if (r == 0)
		r = may_write(h, -EBADF);
	if (r && !(failed && !h->disk->killed && h->write && sim_one_in(&h->disk->random, 2)))
		return sim_leave(h->disk, SIM_WRITE, r);
	if (failed)
		n = 1 + sim_below(&h->disk->random, n);
	r = content_write(h->disk, h->node, p, n, offset);
	node_written(h->disk, h->node);
	sim_trace_add(n);
	return sim_leave(h->disk, SIM_WRITE, failed ? failed : r);
}

int file_write_as(int fd, const void *p, size_t n, uint64_t offset, bool uncached)
{
	(void)uncached;
	return file_write(fd, p, n, offset);
}

int file_truncate(int fd, uint64_t size)
{
	struct handle *h = sim_handle(fd);
	int r;

	if (size > INT64_MAX)
		return -EFBIG;
	r = -sim_enter(h->disk, SIM_TRUNCATE_FILE);
	if (r == 0)
		r = may_write(h, -EINVAL);
	if (r == 0)
		r = content_resize(h->disk, h->node, size);
	if (r == 0)
		node_written(h->disk, h->node);
	return sim_leave(h->disk, SIM_TRUNCATE_FILE, r);
}

int file_next_data(int fd, uint64_t offset, uint64_t size, uint64_t *ret_from, uint64_t *ret_to)
{
	struct handle *h = sim_handle(fd);
	uint64_t from, to;
	int r;

	if (offset >= size)
		return FILE_END;
	if (size > INT64_MAX)
		return -EFBIG;
	r = -sim_enter(h->disk, SIM_NEXT_DATA);
	if (r == 0 && (!content_data(h->node, offset, &from, &to) || from >= size))
		return sim_leave(h->disk, SIM_NEXT_DATA, FILE_END);
	if (r == 0) {
		*ret_from = from;
		*ret_to = to < size ? to : size;
	}
	return done(h->disk, SIM_NEXT_DATA, r);
}

int file_clone(int from, int to)
{
	struct handle *source = sim_handle(from), *h = sim_handle(to);
	int r = -sim_enter(h->disk, SIM_CLONE);

	if (r == 0)
		r = may_write(h, -EBADF);
	if (r == 0 && (!h->disk->options.abilities.reflink || source->disk != h->disk))
		r = -EOPNOTSUPP;
	if (r == 0 && (source->node == h->node ||
			      (source->node->now.size % PAGE_BYTES && source->node->now.size < h->node->now.size)))
		r = -EINVAL;
	if (r == 0) {
		content_share(h->disk, h->node, source->node);
		node_written(h->disk, h->node);
	}
	return done(h->disk, SIM_CLONE, r);
}

/* A range without holes. */
static int copy_data(const struct handle *from, uint64_t from_offset, struct handle *to, uint64_t to_offset, uint64_t n)
{
	uint8_t bytes[PAGE_BYTES];
	int r = 0;

	while (n && r == 0) {
		size_t now = content_read(from->node, bytes, n < sizeof(bytes) ? n : sizeof(bytes), from_offset);

		r = content_write(to->disk, to->node, bytes, now, to_offset);
		from_offset += now;
		to_offset += now;
		n -= now;
	}
	return r;
}

static int copy(const struct handle *from, uint64_t at, struct handle *to, uint64_t to_offset, uint64_t n)
{
	uint64_t end = at + n, shift = to_offset - at, data, hole;
	int r = 0;

	while (at < end && r == 0) {
		if (!content_data(from->node, at, &data, &hole) || data >= end)
			data = hole = end;
		if (hole > end)
			hole = end;
		r = content_clear(to->disk, to->node, at + shift, data + shift);
		if (r == 0)
			r = copy_data(from, data, to, data + shift, hole - data);
		at = hole;
	}
	if (r == 0 && to->node->now.size < to_offset + n)
		r = content_write(to->disk, to->node, "", 1, to_offset + n - 1);
	return r;
}

int file_copy_range(int from, uint64_t from_offset, int to, uint64_t to_offset, uint64_t n)
{
	struct handle *source = sim_handle(from), *h = sim_handle(to);
	int r;

	if (!range_fits(from_offset, n) || !range_fits(to_offset, n))
		return -EFBIG;
	r = -sim_enter(h->disk, SIM_COPY);
	if (r == 0 && source->disk->killed)
		r = -EIO;
	if (r == 0 && source->node->now.size < from_offset + n)
		return sim_leave(h->disk, SIM_COPY, FILE_END);
	if (r == 0 && n)
		r = may_write(h, -EBADF);
	if (r == 0 && n) {
		r = copy(source, from_offset, h, to_offset, n);
		node_written(h->disk, h->node);
		sim_trace_add(n);
	}
	return done(h->disk, SIM_COPY, r);
}

/* --- changing names --- */

static int make(int dir, const char *name, enum sim_call call, enum file_kind kind, uint16_t mode, const char *target)
{
	struct handle *h = sim_handle(dir);
	int r = -sim_enter(h->disk, call);

	if (r == 0 && kind == FILE_KIND_SYMLINK && !h->disk->options.abilities.symlink)
		r = -EOPNOTSUPP;
	if (r == 0)
		r = tree_make(h->disk, h->node, name, kind, mode, target, NULL);
	return done(h->disk, call, r);
}

int file_mkdir(int dir, const char *name, uint16_t mode)
{
	int r = file_check_name(name);

	assert(!(mode & ~07777));
	return r ? r : make(dir, name, SIM_MKDIR, FILE_KIND_DIRECTORY, mode & 01777, NULL);
}

int file_symlink(const char *target, int dir, const char *name)
{
	int r = file_check_name(name);

	if (r == 0 && !*target)
		r = -EINVAL;
	if (r == 0 && strlen(target) > FILE_PATH_BYTES_MAX)
		r = -ENAMETOOLONG;
	return r ? r : make(dir, name, SIM_SYMLINK, FILE_KIND_SYMLINK, 0777, target);
}

static int remove_name(int dir, const char *name, enum sim_call call)
{
	int r = file_check_name(name);
	struct handle *h;

	if (r < 0)
		return r;
	h = sim_handle(dir);
	r = -sim_enter(h->disk, call);
	if (r == 0)
		r = tree_remove(h->disk, h->node, name, call == SIM_RMDIR);
	return done(h->disk, call, r);
}

int file_unlink(int dir, const char *name)
{
	return remove_name(dir, name, SIM_UNLINK);
}

int file_rmdir(int dir, const char *name)
{
	return remove_name(dir, name, SIM_RMDIR);
}

static int rename_as(int from_dir, const char *from, int to_dir, const char *to, enum sim_call call, enum rename how)
{
	struct handle *h1, *h2;
	int r = file_check_names(from, to);

	if (r < 0)
		return r;
	h1 = sim_handle(from_dir);
	h2 = sim_handle(to_dir);
	r = -sim_enter(h1->disk, call);
	if (r == 0 && h1->disk != h2->disk)
		r = -EXDEV;
	if (r == 0)
		r = tree_rename(h1->disk, h1->node, from, h2->node, to, how);
	return done(h1->disk, call, r);
}

int file_rename_noreplace(int from_dir, const char *from, int to_dir, const char *to)
{
	return rename_as(from_dir, from, to_dir, to, SIM_RENAME, RENAME_NEW);
}

int file_rename_replace(int from_dir, const char *from, int to_dir, const char *to)
{
	return rename_as(from_dir, from, to_dir, to, SIM_RENAME, RENAME_OVER);
}

int file_exchange(int dir1, const char *name1, int dir2, const char *name2)
{
	return rename_as(dir1, name1, dir2, name2, SIM_EXCHANGE, RENAME_BOTH);
}

int file_link(int from_dir, const char *from, int to_dir, const char *to)
{
	struct handle *h1, *h2;
	int r = file_check_names(from, to);

	if (r < 0)
		return r;
	h1 = sim_handle(from_dir);
	h2 = sim_handle(to_dir);
	r = -sim_enter(h1->disk, SIM_LINK);
	if (r == 0 && h1->disk != h2->disk)
		r = -EXDEV;
	if (r == 0)
		r = tree_link(h1->disk, h1->node, from, h2->node, to);
	return done(h1->disk, SIM_LINK, r);
}

/* --- attributes --- */

int file_chmod_fd(int fd, uint16_t mode)
{
	struct handle *h = sim_handle(fd);
	int r = -sim_enter(h->disk, SIM_CHMOD);

	assert(!(mode & ~07777));
	return done(h->disk, SIM_CHMOD, r ? r : node_chmod(h->disk, h->node, mode));
}

int file_chown_fd(int fd, uint32_t uid, uint32_t gid)
{
	struct handle *h = sim_handle(fd);
	int r = -sim_enter(h->disk, SIM_CHOWN);

	return done(h->disk, SIM_CHOWN, r ? r : node_chown(h->disk, h->node, uid, gid));
}

int file_set_mtime_fd(int fd, int64_t mtime_ns)
{
	struct handle *h = sim_handle(fd);
	int r = -sim_enter(h->disk, SIM_SET_MTIME);

	return done(h->disk, SIM_SET_MTIME, r ? r : node_touch(h->disk, h->node, mtime_ns));
}

/* For what changes a symlink itself. */
static int look_symlink(int dir, const char *name, enum sim_call call, struct handle **ret_dir, struct entry **ret)
{
	int r = look(dir, name, call, ret_dir, ret);

	if (r == 0 && (*ret)->covered)
		r = -EXDEV;
	else if (r == 0 && (*ret)->node->kind != FILE_KIND_SYMLINK)
		r = -EOPNOTSUPP;
	return r;
}

int file_chown_at(int dir, const char *name, uint32_t uid, uint32_t gid)
{
	struct handle *h;
	struct entry *e;
	int r = look_symlink(dir, name, SIM_CHOWN, &h, &e);

	if (!h)
		return r;
	return done(h->disk, SIM_CHOWN, r ? r : node_chown(h->disk, e->node, uid, gid));
}

int file_set_mtime_at(int dir, const char *name, int64_t mtime_ns)
{
	struct handle *h;
	struct entry *e;
	int r = look_symlink(dir, name, SIM_SET_MTIME, &h, &e);

	if (!h)
		return r;
	return done(h->disk, SIM_SET_MTIME, r ? r : node_touch(h->disk, e->node, mtime_ns));
}

int file_set_hints(int fd)
{
	struct handle *h = sim_handle(fd);
	int r = -sim_enter(h->disk, SIM_NODUMP);

	if (r == 0 && h->disk->read_only)
		r = -EROFS;
	if (r == 0 && !node_mine(h->node))
		r = -EPERM;
	return done(h->disk, SIM_NODUMP, r);
}

/* --- durability and exclusion --- */

static int sync_done(struct sim_disk *d, enum sim_call call, int r)
{
	r = sim_leave(d, call, r);
	return r < 0 && file_outcome(-r) == FILE_UNSUPPORTED ? FILE_UNSUPPORTED : r;
}

int file_fsync(int fd)
{
	struct handle *h = sim_handle(fd);
	int e = sim_enter(h->disk, SIM_FSYNC);

	return sync_done(h->disk, SIM_FSYNC, h->disk->killed ? -e : crash_fsync(h->disk, h->node, e));
}

int file_syncfs(int fd)
{
	struct handle *h = sim_handle(fd);
	int e = sim_enter(h->disk, SIM_SYNCFS);

	return sync_done(h->disk, SIM_SYNCFS, h->disk->killed ? -e : crash_sync_all(h->disk, e));
}

int file_start_writeback(int fd)
{
	struct handle *h = sim_handle(fd);
	int r = -sim_enter(h->disk, SIM_WRITEBACK);

	return sync_done(h->disk, SIM_WRITEBACK, r);
}

int file_lease_read(int fd)
{
	struct handle *h = sim_handle(fd);
	int r = -sim_enter(h->disk, SIM_LEASE);

	if (r == 0 && (!h->disk->options.abilities.lease || h->node->kind != FILE_KIND_REGULAR || !node_mine(h->node)))
		return sim_leave(h->disk, SIM_LEASE, FILE_UNSUPPORTED);
	if (r == 0 && (h->node->writers || node_lease_broken(h->node)))
		return sim_leave(h->disk, SIM_LEASE, FILE_BUSY);
	if (r == 0)
		h->lease = LEASE_READ;
	return done(h->disk, SIM_LEASE, r);
}

bool file_lease_broken(int fd)
{
	struct handle *h = sim_handle(fd);
	int r = -sim_enter(h->disk, SIM_LEASE);

	return sim_leave(h->disk, SIM_LEASE, r != 0 || h->lease != LEASE_READ) != 0;
}

int file_lease_release(int fd)
{
	struct handle *h = sim_handle(fd);
	enum lease held = h->lease;
	int r = -sim_enter(h->disk, SIM_UNLEASE);

	h->lease = LEASE_NONE;
	if (r == 0 && held != LEASE_READ)
		return sim_leave(h->disk, SIM_UNLEASE, FILE_BUSY);
	return done(h->disk, SIM_UNLEASE, r);
}

int file_lock(int fd)
{
	struct handle *h = sim_handle(fd);
	int r = -sim_enter(h->disk, SIM_LOCK);

	if (r == 0 && h->node->locker && h->node->locker != h)
		return sim_leave(h->disk, SIM_LOCK, FILE_BUSY);
	if (r == 0)
		h->node->locker = h;
	return done(h->disk, SIM_LOCK, r);
}
