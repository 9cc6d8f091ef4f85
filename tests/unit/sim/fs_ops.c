/* tests/unit/sim/fs_ops.c — see tests/unit/sim/fs_ops.h. */
#include "tests/unit/sim/fs_ops.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/error.h"
#include "base/file.h"
#include "tests/random.h"

#define SLOTS 6
#define BYTES_MAX 20000

struct slot {
	int fd; /* -1: free */
	bool write, leased;
};

struct ops {
	uint64_t random;
	FILE *out;
	int root;
	int dirs[SLOTS]; /* the first is the root */
	struct slot files[SLOTS];
};

static unsigned below(struct ops *o, unsigned n)
{
	return (unsigned)(test_random(&o->random) % n);
}

__attribute__((format(printf, 2, 3))) static void say(struct ops *o, const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	vfprintf(o->out, fmt, args);
	va_end(args);
}

static const char *name_of(struct ops *o)
{
	static const char *const names[] = {"a", "b", "c", "d", "e", "A", "\xff\n", "no"};

	return names[below(o, below(o, 4) ? 4 : 8)];
}

static const char *path_of(struct ops *o, char ret[32])
{
	const char *x = name_of(o), *y = name_of(o);

	switch (below(o, 4)) {
	case 0:
		snprintf(ret, 32, "%s", below(o, 8) ? x : "");
		break;
	case 1:
		snprintf(ret, 32, "%s/%s/%s", x, y, name_of(o));
		break;
	default:
		snprintf(ret, 32, "%s/%s", x, y);
	}
	return ret;
}

static int dir_of(struct ops *o)
{
	unsigned i = below(o, SLOTS);

	while (o->dirs[i] < 0)
		i = (i + 1) % SLOTS;
	say(o, " dir %u", i);
	return o->dirs[i];
}

/* NULL: none is open. */
static struct slot *file_of(struct ops *o)
{
	unsigned first = below(o, SLOTS);

	for (unsigned i = 0; i < SLOTS; i++) {
		struct slot *s = &o->files[(first + i) % SLOTS];

		if (s->fd < 0)
			continue;
		say(o, " file %u", (first + i) % SLOTS);
		return s;
	}
	return NULL;
}

static void keep_dir(struct ops *o, int r, int fd)
{
	unsigned i = 1 + below(o, SLOTS - 1);

	if (r)
		return;
	close_keep(o->dirs[i]);
	o->dirs[i] = fd;
}

static void keep_file(struct ops *o, int r, int fd, bool write)
{
	struct slot *s = &o->files[below(o, SLOTS)];

	if (r)
		return;
	close_keep(s->fd);
	*s = (struct slot){.fd = fd, .write = write};
}

static void say_stat(struct ops *o, const struct file_stat *st)
{
	bool directory = st->kind == FILE_KIND_DIRECTORY;

	say(o, " {%d %o %u:%u links %u", (int)st->kind, st->mode, st->uid, st->gid, st->nlink);
	if (!directory)
		say(o, " size %" PRIu64, st->size);
	if (st->kind == FILE_KIND_REGULAR)
		say(o, " blocks %" PRIu64, st->blocks);
	say(o, "}");
}

static uint64_t sum(const uint8_t *p, size_t n)
{
	uint64_t h = n;

	for (size_t i = 0; i < n; i++)
		h = (h ^ p[i]) * UINT64_C(0x100000001b3);
	return h;
}

static void say_content(struct ops *o, int fd, uint64_t size)
{
	uint64_t from, to, at = 0;
	uint8_t *bytes = malloc(size + 1);
	size_t n = 0;
	int r = file_read(fd, bytes, size, 0, &n);

	say(o, " read %d %zu %016" PRIx64, r, n, sum(bytes, n));
	while (!file_next_data(fd, at, size, &from, &to)) {
		say(o, " [%" PRIu64 " %" PRIu64 ")", from, to);
		at = to;
	}
	free(bytes);
}

/* --- what an operation changed --- */

struct seen {
	int r;
	struct file_stat st;
};

static struct seen see(int dir, const char *name)
{
	struct seen s = {0};

	s.r = name ? file_stat_at(dir, name, &s.st) : file_stat_fd(dir, &s.st);
	return s;
}

static void say_changed(struct ops *o, struct seen before, struct seen after)
{
	if (before.r || after.r) {
		say(o, " (%d %d)", before.r, after.r);
		return;
	}
	if (before.st.ino != after.st.ino)
		say(o, " (other)");
	else
		say(o, " (%s %s)", before.st.mtime_ns == after.st.mtime_ns ? "-----" : "mtime",
			before.st.ctime_ns == after.st.ctime_ns ? "-----" : "ctime");
	say_stat(o, &after.st);
}

/* --- calls --- */

static void op_open_directory(struct ops *o)
{
	int fd = -1, dir = dir_of(o);
	char path[32];
	const char *name = "";
	int r;

	path_of(o, path);
	if (below(o, 2)) {
		r = file_open_directory_at(dir, path, &fd);
		say(o, " open_directory_at %s: %d", path, r);
	} else {
		r = file_open_parent(dir, path, &fd, &name);
		say(o, " open_parent %s: %d %s", path, r, name);
	}
	keep_dir(o, r, fd);
}

static void op_open_file(struct ops *o)
{
	int fd = -1, dir = dir_of(o), r;
	const char *name = name_of(o);
	unsigned how = below(o, 4);
	uint16_t mode = (uint16_t[]){0644, 0600, 0777, 04755, 06711, 0}[below(o, 6)];
	struct seen before;

	switch (how) {
	case 0:
		r = file_open_read(dir, name, &fd);
		break;
	case 1:
		r = file_open_write(dir, name, &fd);
		break;
	default:
		before = see(dir, NULL);
		r = file_create(dir, name, mode, &fd);
		say_changed(o, before, see(dir, NULL));
	}
	say(o, " open %u %s: %d", how, name, r);
	keep_file(o, r, fd, how > 0);
}

static void op_close(struct ops *o)
{
	struct slot *s = file_of(o);

	if (s)
		s->fd = close_keep(s->fd);
}

static void op_look(struct ops *o)
{
	int dir = dir_of(o), r;
	const char *name = name_of(o);
	struct file_stat st;
	char *target = NULL;

	r = file_stat_at(dir, name, &st);
	say(o, " stat_at %s: %d", name, r);
	if (r == 0)
		say_stat(o, &st);
	r = file_readlink(dir, name, &target);
	say(o, " readlink: %d %s", r, target ? target : "");
	free(target);
	r = file_stat_fd(dir, &st);
	say(o, " stat_fd: %d", r);
	if (r == 0)
		say_stat(o, &st);
}

static int order(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

static size_t list(struct ops *o, int dir, char *names[64])
{
	struct file_dir *d = NULL;
	const char *name;
	size_t n = 0;
	int r = file_dir_open(dir, &d);

	say(o, " list: %d", r);
	if (r)
		return 0;
	while (!(r = file_dir_next(d, &name)) && n < 64)
		names[n++] = strdup(name);
	file_dir_close(d);
	say(o, " %d", r);
	qsort(names, n, sizeof(*names), order);
	return n;
}

static void op_list(struct ops *o)
{
	char *names[64];
	size_t n = list(o, dir_of(o), names);

	for (size_t i = 0; i < n; free(names[i++]))
		say(o, " %s", names[i]);
}

static void op_read(struct ops *o)
{
	struct slot *s = file_of(o);
	uint64_t offset = below(o, BYTES_MAX), size = below(o, BYTES_MAX), from = 0, to = 0;
	uint8_t bytes[256];
	size_t n = 0;
	int r;

	if (!s)
		return;
	r = file_read(s->fd, bytes, sizeof(bytes), offset, &n);
	say(o, " read %" PRIu64 ": %d %016" PRIx64, offset, r, sum(bytes, n));
	r = file_next_data(s->fd, offset, size, &from, &to);
	say(o, " next_data %" PRIu64 ": %d %" PRIu64 " %" PRIu64, size, r, from, to);
}

static void op_write(struct ops *o)
{
	struct slot *s = file_of(o);
	uint64_t offset = below(o, 3) ? 0 : below(o, BYTES_MAX);
	size_t n = below(o, below(o, 2) ? 100 : BYTES_MAX);
	uint8_t bytes[BYTES_MAX];
	struct seen before;
	int r;

	if (!s)
		return;
	memset(bytes, (int)below(o, 256), sizeof(bytes));
	memcpy(bytes, &o->random, sizeof(o->random));
	before = see(s->fd, NULL);
	r = file_write(s->fd, bytes, n, offset);
	say(o, " write %zu at %" PRIu64 ": %d", n, offset, r);
	say_changed(o, before, see(s->fd, NULL));
}

static void op_truncate(struct ops *o)
{
	struct slot *s = file_of(o);
	uint64_t size = below(o, below(o, 3) ? BYTES_MAX : 1);
	struct seen before;
	int r;

	if (!s)
		return;
	before = see(s->fd, NULL);
	r = file_truncate(s->fd, size);
	say(o, " truncate %" PRIu64 ": %d", size, r);
	say_changed(o, before, see(s->fd, NULL));
}

static void op_copy(struct ops *o)
{
	struct slot *from = file_of(o), *to = file_of(o);
	uint64_t from_offset = below(o, 2) ? 0 : below(o, 5000), to_offset = below(o, 2) ? from_offset : below(o, 9000);
	uint64_t n = below(o, BYTES_MAX);
	struct file_stat a, b;
	int r;

	if (!from || file_stat_fd(from->fd, &a) || file_stat_fd(to->fd, &b) || a.ino == b.ino || !to->write)
		return;
	if (below(o, 2) && from_offset < a.size)
		n = a.size - from_offset;
	r = file_copy_range(from->fd, from_offset, to->fd, to_offset, n);
	say(o, " copy %" PRIu64 " %" PRIu64 " %" PRIu64 ": %d", from_offset, to_offset, n, r);
	if (r == 0 && file_stat_fd(to->fd, &b) == 0)
		say_content(o, to->fd, b.size);
}

static void op_make(struct ops *o)
{
	int dir = dir_of(o), r;
	const char *name = name_of(o);
	uint16_t mode = (uint16_t[]){0755, 0700, 02775, 01777}[below(o, 4)];
	struct seen before = see(dir, NULL);
	bool link = below(o, 3) == 0;

	r = link ? file_symlink("a/b", dir, name) : file_mkdir(dir, name, mode);
	say(o, " %s %s: %d", link ? "symlink" : "mkdir", name, r);
	say_changed(o, before, see(dir, NULL));
	say_changed(o, before, see(dir, name));
}

static void op_remove(struct ops *o)
{
	int dir = dir_of(o), r;
	const char *name = name_of(o);
	struct seen before = see(dir, NULL);
	bool directory = below(o, 2);

	r = directory ? file_rmdir(dir, name) : file_unlink(dir, name);
	say(o, " %s %s: %d", directory ? "rmdir" : "unlink", name, r);
	say_changed(o, before, see(dir, NULL));
}

static void op_rename(struct ops *o)
{
	static const char *const words[] = {"noreplace", "replace", "exchange", "link"};
	int from_dir = dir_of(o), to_dir = dir_of(o), r;
	const char *from = name_of(o), *to = name_of(o);
	unsigned how = below(o, 4);
	struct seen dir1 = see(from_dir, NULL), dir2 = see(to_dir, NULL), one = see(from_dir, from), two = see(to_dir, to);

	switch (how) {
	case 0:
		r = file_rename_noreplace(from_dir, from, to_dir, to);
		break;
	case 1:
		r = file_rename_replace(from_dir, from, to_dir, to);
		break;
	case 2:
		r = file_exchange(from_dir, from, to_dir, to);
		break;
	default:
		r = file_link(from_dir, from, to_dir, to);
	}
	say(o, " %s %s %s: %d", words[how], from, to, r);
	say_changed(o, dir1, see(from_dir, NULL));
	say_changed(o, dir2, see(to_dir, NULL));
	say_changed(o, one, see(to_dir, to));
	say_changed(o, two, see(from_dir, from));
}

static void op_attributes(struct ops *o)
{
	struct slot *s = file_of(o);
	int fd = s && below(o, 3) ? s->fd : dir_of(o), r;
	unsigned how = below(o, 3);
	int64_t mtime_ns = INT64_C(1500000000123456789) - below(o, 1000000) * INT64_C(3000000000000);
	struct seen before = see(fd, NULL), after;

	switch (how) {
	case 0:
		r = file_chmod_fd(fd, (uint16_t)(below(o, 2) ? 0755 : below(o, 010000)));
		break;
	case 1:
		r = file_chown_fd(fd, below(o, 3), below(o, 3));
		break;
	default:
		r = file_set_mtime_fd(fd, mtime_ns);
	}
	after = see(fd, NULL);
	say(o, " attributes %u: %d", how, r);
	say_changed(o, before, after);
	if (how == 2 && after.r == 0)
		say(o, " off by %" PRId64, after.st.mtime_ns - mtime_ns);
}

static void op_attributes_at(struct ops *o)
{
	int dir = dir_of(o), r;
	const char *name = name_of(o);
	struct seen before = see(dir, name);
	bool owner = below(o, 2);

	r = owner ? file_chown_at(dir, name, below(o, 3), below(o, 3)) : file_set_mtime_at(dir, name, 1234567890);
	say(o, " attributes at %d %s: %d", owner, name, r);
	say_changed(o, before, see(dir, name));
}

static void op_lease(struct ops *o)
{
	struct slot *s = file_of(o);
	int r;

	if (!s)
		return;
	say(o, " broken %d", file_lease_broken(s->fd));
	r = s->leased ? file_lease_release(s->fd) : file_lease_read(s->fd);
	say(o, " lease %d: %d", s->leased, r);
	s->leased = !s->leased && r == 0;
}

static void op_lock(struct ops *o)
{
	struct slot *s = file_of(o);

	say(o, " lock: %d", file_lock(s && below(o, 2) ? s->fd : dir_of(o)));
}

static void op_sync(struct ops *o)
{
	struct slot *s = file_of(o);

	if (s)
		say(o, " fsync: %d", file_fsync(s->fd));
	if (s && below(o, 4) == 0)
		say(o, " writeback: %d", file_start_writeback(s->fd));
	say(o, " fsync: %d", file_fsync(dir_of(o)));
}

static void (*const ops[])(struct ops *o) = {op_open_directory, op_open_directory, op_open_file, op_open_file, op_open_file,
	op_close, op_look, op_list, op_read, op_write, op_write, op_truncate, op_copy, op_make, op_make, op_remove, op_remove,
	op_rename, op_rename, op_rename, op_attributes, op_attributes_at, op_lease, op_lock, op_sync};

/* --- the tree at the end --- */

static void say_tree(struct ops *o, int dir, unsigned depth)
{
	char *names[64];
	size_t n = list(o, dir, names);

	say(o, "\n");
	for (size_t i = 0; i < n; free(names[i++])) {
		struct file_stat st;
		char *target = NULL;
		int fd = -1;

		if (file_stat_at(dir, names[i], &st))
			continue;
		say(o, "%*s%s", (int)depth, "", names[i]);
		say_stat(o, &st);
		if (st.kind == FILE_KIND_SYMLINK && file_readlink(dir, names[i], &target) == 0)
			say(o, " -> %s", target);
		if (st.kind == FILE_KIND_REGULAR && file_open_read(dir, names[i], &fd) == 0)
			say_content(o, fd, st.size);
		if (st.kind == FILE_KIND_DIRECTORY && file_open_directory_at(dir, names[i], &fd) == 0)
			say_tree(o, fd, depth + 1);
		else
			say(o, "\n");
		close_keep(fd);
		free(target);
	}
}

char *fs_ops_run(const char *root, uint64_t seed, unsigned calls)
{
	struct ops o = {.random = seed};
	char *text = NULL;
	size_t size;

	o.out = open_memstream(&text, &size);
	for (unsigned i = 0; i < SLOTS; i++)
		o.dirs[i] = o.files[i].fd = -1;
	if (file_open_directory(root, &o.dirs[0]))
		say(&o, "no root\n");
	for (unsigned i = 0; i < calls && o.dirs[0] >= 0; i++) {
		say(&o, "%u:", i);
		ops[below(&o, ARRAY_SIZE(ops))](&o);
		say(&o, "\n");
	}
	for (unsigned i = 0; i < SLOTS; i++) {
		o.files[i].fd = close_keep(o.files[i].fd);
		if (i)
			o.dirs[i] = close_keep(o.dirs[i]);
	}
	say_tree(&o, o.dirs[0], 0);
	close_keep(o.dirs[0]);
	fclose(o.out);
	return text;
}
