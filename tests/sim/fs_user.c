/* tests/sim/fs_user.c — users of the simulated disks; see tests/sim/fs.h. */
#include "tests/sim/fs_internal.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* While one of these is in a scope, what is done there is a user's. */
static bool user_begin(void)
{
	bool before = sim.user;

	sim.user = true;
	return before;
}

static void user_end(bool *before)
{
	sim.user = *before;
}

#define AS_USER __attribute__((unused)) bool as_user_ cleanup(user_end) = user_begin()

/* The directory of a path, and its last component. */
static int parent_of(struct sim_disk *d, const char *path, struct node **ret_dir, const char **ret_name)
{
	char parent[FILE_PATH_BYTES_MAX + 1];
	const char *slash = strrchr(path, '/');
	size_t n = slash ? (size_t)(slash - path) : 0;

	if (!*path)
		return -EBUSY;
	if (strlen(path) > FILE_PATH_BYTES_MAX)
		return -ENAMETOOLONG;
	*ret_name = slash ? slash + 1 : path;
	if (strlen(*ret_name) > FILE_NAME_BYTES_MAX)
		return -ENAMETOOLONG;
	memcpy(parent, path, n);
	parent[n] = '\0';
	return tree_resolve(d, d->root, parent, ret_dir);
}

static int entry_of(struct sim_disk *d, const char *path, struct entry **ret)
{
	const char *name;
	struct node *dir;
	int r = parent_of(d, path, &dir, &name);

	return r ? r : tree_lookup(d, dir, name, ret);
}

static int node_of(struct sim_disk *d, const char *path, struct node **ret)
{
	struct entry *e;
	int r;

	if (!*path) {
		*ret = d->root;
		return 0;
	}
	r = entry_of(d, path, &e);
	if (r == 0)
		*ret = e->node;
	return r;
}

int sim_cover(struct sim_disk *d, const char *path, bool covered)
{
	AS_USER;
	struct entry *e;
	int r = entry_of(d, path, &e);

	if (r == 0)
		e->covered = covered;
	return r;
}

/* --- open files --- */

static int make_at(struct sim_disk *d, const char *path, enum file_kind kind, uint16_t mode, const char *target,
	struct node **ret)
{
	const char *name;
	struct node *dir;
	int r = parent_of(d, path, &dir, &name);

	return r ? r : tree_make(d, dir, name, kind, mode, target, ret);
}

static int truncate_fd(int fd, uint64_t size)
{
	AS_USER;
	struct handle *h = sim_handle(fd);
	int r = content_resize(h->disk, h->node, size);

	if (r == 0)
		node_stamp(h->disk, h->node, true);
	return r;
}

int sim_user_open(struct sim_disk *d, const char *path, int flags)
{
	AS_USER;
	struct node *n;
	int fd, r = node_of(d, path, &n);

	if (r == -ENOENT && flags & SIM_CREATE)
		r = make_at(d, path, FILE_KIND_REGULAR, 0644, NULL, &n);
	if (r == 0 && n->kind != FILE_KIND_REGULAR)
		r = n->kind == FILE_KIND_DIRECTORY ? -EISDIR : -ELOOP;
	if (r == 0 && d->read_only)
		r = -EROFS;
	if (r == 0)
		r = node_break_leases(n);
	if (r < 0)
		return r;
	fd = sim_open(d, n, true);
	if (fd >= 0 && flags & SIM_TRUNCATE)
		(void)truncate_fd(fd, 0);
	return fd;
}

int sim_user_write_fd(int fd, const void *p, size_t n, uint64_t offset)
{
	AS_USER;
	struct handle *h = sim_handle(fd);
	int r = n ? content_write(h->disk, h->node, p, n, offset) : 0;

	if (n)
		node_stamp(h->disk, h->node, true);
	return r;
}

int sim_user_store(int fd, const void *p, size_t n, uint64_t offset)
{
	AS_USER;
	struct handle *h = sim_handle(fd);
	uint64_t size = h->node->now.size;

	if (offset >= size)
		return -EFAULT;
	return content_write(h->disk, h->node, p, n < size - offset ? n : size - offset, offset);
}

void sim_user_close(int fd)
{
	sim_close(fd);
}

/* --- files --- */

int sim_user_write(struct sim_disk *d, const char *path, const void *p, size_t n)
{
	int r, fd = sim_user_open(d, path, SIM_CREATE | SIM_TRUNCATE);

	if (fd < 0)
		return fd;
	r = sim_user_write_fd(fd, p, n, 0);
	sim_close(fd);
	return r;
}

int sim_user_append(struct sim_disk *d, const char *path, const void *p, size_t n)
{
	int r, fd = sim_user_open(d, path, SIM_CREATE);

	if (fd < 0)
		return fd;
	r = sim_user_write_fd(fd, p, n, sim_handle(fd)->node->now.size);
	sim_close(fd);
	return r;
}

int sim_user_truncate(struct sim_disk *d, const char *path, uint64_t size)
{
	int r, fd = sim_user_open(d, path, 0);

	if (fd < 0)
		return fd;
	r = truncate_fd(fd, size);
	sim_close(fd);
	return r;
}

int sim_user_rewrite(struct sim_disk *d, const char *path, const void *p, size_t n)
{
	int r, fd = sim_user_open(d, path, 0);
	struct node *node;
	int64_t mtime_ns;

	if (fd < 0)
		return fd;
	node = sim_handle(fd)->node;
	mtime_ns = node->now.mtime_ns;
	r = node->now.size == n ? sim_user_write_fd(fd, p, n, 0) : -EINVAL;
	if (r == 0)
		r = sim_user_touch(d, path, mtime_ns);
	sim_close(fd);
	return r;
}

int sim_user_read(struct sim_disk *d, const char *path, void *ret, size_t n, size_t *ret_n)
{
	AS_USER;
	struct node *node;
	int r = node_of(d, path, &node);

	if (r < 0)
		return r;
	if (node->kind == FILE_KIND_REGULAR) {
		*ret_n = content_read(node, ret, n, 0);
		return 0;
	}
	if (node->kind != FILE_KIND_SYMLINK)
		return -EISDIR;
	*ret_n = strlen(node->target) < n ? strlen(node->target) : n;
	memcpy(ret, node->target, *ret_n);
	return 0;
}

int sim_user_stat(struct sim_disk *d, const char *path, struct file_stat *ret)
{
	AS_USER;
	struct node *n;
	int r = node_of(d, path, &n);

	if (r == 0)
		node_stat(d, n, ret);
	return r;
}

int sim_user_fsync(struct sim_disk *d, const char *path)
{
	AS_USER;
	struct node *n;
	int r = node_of(d, path, &n);

	return r ? r : crash_fsync(d, n, 0);
}

/* --- names --- */

int sim_user_mkdir(struct sim_disk *d, const char *path, uint16_t mode)
{
	AS_USER;

	return make_at(d, path, FILE_KIND_DIRECTORY, mode, NULL, NULL);
}

int sim_user_symlink(struct sim_disk *d, const char *path, const char *target)
{
	AS_USER;

	return d->options.abilities.symlink ? make_at(d, path, FILE_KIND_SYMLINK, 0777, target, NULL) : -EPERM;
}

static int remove_at(struct sim_disk *d, const char *path, bool directory)
{
	const char *name;
	struct node *dir;
	int r = parent_of(d, path, &dir, &name);

	return r ? r : tree_remove(d, dir, name, directory);
}

int sim_user_unlink(struct sim_disk *d, const char *path)
{
	AS_USER;

	return remove_at(d, path, false);
}

int sim_user_rmdir(struct sim_disk *d, const char *path)
{
	AS_USER;

	return remove_at(d, path, true);
}

static int empty(struct sim_disk *d, struct node *dir)
{
	while (dir->n_entries) {
		struct entry *e = &dir->entries[dir->n_entries - 1];
		bool directory = e->node->kind == FILE_KIND_DIRECTORY;
		int r = directory ? empty(d, e->node) : 0;

		if (r == 0)
			r = tree_remove(d, dir, e->name, directory);
		if (r < 0)
			return r;
	}
	return 0;
}

int sim_user_remove(struct sim_disk *d, const char *path)
{
	AS_USER;
	struct node *n;
	int r = node_of(d, path, &n);

	if (r < 0)
		return r;
	if (n->kind == FILE_KIND_DIRECTORY)
		r = empty(d, n);
	if (r < 0 || n == d->root)
		return r;
	return remove_at(d, path, n->kind == FILE_KIND_DIRECTORY);
}

static int rename_at(struct sim_disk *d, const char *from, const char *to, enum rename how)
{
	const char *name1, *name2;
	struct node *dir1, *dir2;
	int r = parent_of(d, from, &dir1, &name1);

	if (r == 0)
		r = parent_of(d, to, &dir2, &name2);
	return r ? r : tree_rename(d, dir1, name1, dir2, name2, how);
}

int sim_user_rename(struct sim_disk *d, const char *from, const char *to)
{
	AS_USER;

	return rename_at(d, from, to, RENAME_OVER);
}

int sim_user_exchange(struct sim_disk *d, const char *path1, const char *path2)
{
	AS_USER;

	return rename_at(d, path1, path2, RENAME_BOTH);
}

int sim_user_link(struct sim_disk *d, const char *from, const char *to)
{
	AS_USER;
	const char *name1, *name2;
	struct node *dir1, *dir2;
	int r = parent_of(d, from, &dir1, &name1);

	if (r == 0)
		r = parent_of(d, to, &dir2, &name2);
	return r ? r : tree_link(d, dir1, name1, dir2, name2);
}

/* --- attributes --- */

int sim_user_chmod(struct sim_disk *d, const char *path, uint16_t mode)
{
	AS_USER;
	struct node *n;
	int r = node_of(d, path, &n);

	return r ? r : node_chmod(d, n, mode);
}

int sim_user_chown(struct sim_disk *d, const char *path, uint32_t uid, uint32_t gid)
{
	AS_USER;
	struct node *n;
	int r = node_of(d, path, &n);

	return r ? r : node_chown(d, n, uid, gid);
}

int sim_user_touch(struct sim_disk *d, const char *path, int64_t mtime_ns)
{
	AS_USER;
	struct node *n;
	int r = node_of(d, path, &n);

	return r ? r : node_touch(d, n, mtime_ns);
}

/* --- trees --- */

static int by_name(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

/* The names of a directory in order, in one piece of memory. */
static char **names_of(const struct node *dir)
{
	char **names = sim_alloc((dir->n_entries + 1) * sizeof(*names));

	for (size_t i = 0; i < dir->n_entries; i++)
		names[i] = strdup(dir->entries[i].name);
	qsort(names, dir->n_entries, sizeof(*names), by_name);
	return names;
}

int sim_user_walk(struct sim_disk *d, const char *path, sim_user_see *see, void *data)
{
	AS_USER;
	char below[FILE_PATH_BYTES_MAX + 1];
	struct file_stat st;
	struct node *dir;
	char **names;
	int r = node_of(d, path, &dir);

	if (r < 0)
		return r;
	if (dir->kind != FILE_KIND_DIRECTORY)
		return 0;
	names = names_of(dir);
	for (size_t i = 0; names[i]; free(names[i++])) {
		if (r)
			continue;
		snprintf(below, sizeof(below), "%s%s%s", path, *path ? "/" : "", names[i]);
		r = sim_user_stat(d, below, &st);
		if (r == 0)
			r = see(below, &st, data);
		if (r == 0 && st.kind == FILE_KIND_DIRECTORY)
			r = sim_user_walk(d, below, see, data);
	}
	free(names);
	return r;
}

static int copy_node_to(struct node *from, struct sim_disk *to, const char *path)
{
	uint8_t bytes[PAGE_BYTES];
	struct node *n;
	int r = make_at(to, path, from->kind, from->now.mode, from->target, &n);

	for (uint64_t at = 0; r == 0 && from->kind == FILE_KIND_REGULAR && at < from->now.size; at += sizeof(bytes))
		r = content_write(to, n, bytes, content_read(from, bytes, sizeof(bytes), at), at);
	if (r < 0)
		return r;
	n->now.uid = from->now.uid;
	n->now.gid = from->now.gid;
	return node_touch(to, n, from->now.mtime_ns);
}

int sim_user_copy(struct sim_disk *from, const char *from_path, struct sim_disk *to, const char *to_path)
{
	AS_USER;
	char from_below[FILE_PATH_BYTES_MAX + 1], to_below[FILE_PATH_BYTES_MAX + 1];
	struct node *n;
	char **names;
	int r = node_of(from, from_path, &n);

	if (r == 0 && *to_path)
		r = copy_node_to(n, to, to_path);
	if (r < 0 || n->kind != FILE_KIND_DIRECTORY)
		return r;
	names = names_of(n);
	for (size_t i = 0; names[i]; free(names[i++])) {
		snprintf(from_below, sizeof(from_below), "%s%s%s", from_path, *from_path ? "/" : "", names[i]);
		snprintf(to_below, sizeof(to_below), "%s%s%s", to_path, *to_path ? "/" : "", names[i]);
		if (r == 0)
			r = sim_user_copy(from, from_below, to, to_below);
	}
	free(names);
	return r;
}
