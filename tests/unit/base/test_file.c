/*
 * The file facade on the real file system: confinement, outcomes, sparse copies, leases.
 *
 * Tests with mounts run in a child with a mount namespace of its own and are skipped without the
 * right to one. The whole group is checked for leaked descriptors and leftover files.
 */
#include "base/file.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <linux/fs.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/utsname.h>
#include <sys/vfs.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/error.h"
#include "base/random.h"
#include "tests/unit/where.h"

#define KIB UINT64_C(1024)
#define NS_PER_S INT64_C(1000000000)

/* --- the playground: one fresh directory a test --- */

struct place {
	char path[256];
	int dir; /* of path */
};

static int remove_entry(const char *path, const struct stat *st, int flag, struct FTW *ftw)
{
	(void)st;
	(void)flag;
	(void)ftw;
	return remove(path);
}

static int setup(void **state)
{
	struct place *p = calloc(1, sizeof(*p));

	if (!p)
		return -1;
	snprintf(p->path, sizeof(p->path), "%s/file-test.XXXXXX", where_disk());
	if (!mkdtemp(p->path) || file_open_directory(p->path, &p->dir))
		return -1;
	*state = p;
	return 0;
}

static int teardown(void **state)
{
	struct place *p = *state;
	int r;

	close(p->dir);
	r = nftw(p->path, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
	free(p);
	return r;
}

static int dir_of(void **state)
{
	return ((struct place *)*state)->dir;
}

/* --- helpers --- */

static void sleep_ms(long ms)
{
	struct timespec ts = {.tv_nsec = ms * 1000000};

	nanosleep(&ts, NULL);
}

static int create(int dir, const char *name, const char *content)
{
	int fd = -1;

	assert_int_equal(file_create(dir, name, 0644, &fd), 0);
	assert_int_equal(file_write(fd, content, strlen(content), 0), 0);
	return fd;
}

static void create_closed(int dir, const char *name, const char *content)
{
	close(create(dir, name, content));
}

static void assert_content(int dir, const char *name, const char *content)
{
	char got[256];
	size_t n;
	int fd;

	assert_int_equal(file_open_read(dir, name, &fd), 0);
	assert_int_equal(file_read(fd, got, sizeof(got), 0, &n), 0);
	close(fd);
	assert_int_equal(n, strlen(content));
	assert_memory_equal(got, content, n);
}

static void assert_absent(int dir, const char *name)
{
	struct file_stat st;

	assert_int_equal(file_stat_at(dir, name, &st), FILE_VANISHED);
}

static unsigned count_entries(int dir)
{
	struct file_dir *d = NULL;
	const char *name;
	unsigned n = 0;
	int r;

	assert_int_equal(file_dir_open(dir, &d), 0);
	while (!(r = file_dir_next(d, &name)))
		n++;
	assert_int_equal(r, FILE_END);
	file_dir_close(d);
	return n;
}

/* A child that may mount and change its user. It must not use cmocka's assertions, which jump. */
#define SKIP 255
#define EXPECT(condition)                                                               \
	do {                                                                            \
		if (!(condition)) {                                                     \
			fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition); \
			_exit(1);                                                       \
		}                                                                       \
	} while (0)

static void in_child(void (*body)(void *data), void *data)
{
	int status;
	pid_t pid = fork();

	assert_true(pid >= 0);
	if (pid == 0) {
		body(data);
		_exit(0);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	if (WIFEXITED(status) && WEXITSTATUS(status) == SKIP)
		skip();
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 0);
}

static void own_mounts_or_skip(void)
{
	if (unshare(CLONE_NEWNS) || mount("none", "/", "", MS_REC | MS_PRIVATE, NULL))
		_exit(SKIP);
}

/* --- names and paths --- */

static const char name_256[] = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
			       "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
			       "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
			       "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

static void assert_name_refused(int dir, const char *bad, int error)
{
	struct file_stat st;
	char *target;
	int fd = -1;

	assert_int_equal(file_open_read(dir, bad, &fd), error);
	assert_int_equal(file_open_write(dir, bad, &fd), error);
	assert_int_equal(file_create(dir, bad, 0600, &fd), error);
	assert_int_equal(file_stat_at(dir, bad, &st), error);
	assert_int_equal(file_readlink(dir, bad, &target), error);
	assert_int_equal(file_mkdir(dir, bad, 0700), error);
	assert_int_equal(file_symlink("target", dir, bad), error);
	assert_int_equal(file_unlink(dir, bad), error);
	assert_int_equal(file_rmdir(dir, bad), error);
	assert_int_equal(file_rename_noreplace(dir, bad, dir, "ok"), error);
	assert_int_equal(file_rename_noreplace(dir, "ok", dir, bad), error);
	assert_int_equal(file_rename_replace(dir, bad, dir, "ok"), error);
	assert_int_equal(file_rename_replace(dir, "ok", dir, bad), error);
	assert_int_equal(file_exchange(dir, bad, dir, "ok"), error);
	assert_int_equal(file_exchange(dir, "ok", dir, bad), error);
	assert_int_equal(file_link(dir, bad, dir, "ok"), error);
	assert_int_equal(file_link(dir, "ok", dir, bad), error);
	assert_int_equal(file_chown_at(dir, bad, 0, 0), error);
	assert_int_equal(file_set_mtime_at(dir, bad, 0), error);
	assert_int_equal(fd, -1);
}

static void test_names_are_one_component(void **state)
{
	static const char *const bad[] = {"", ".", "..", "/", "a/b", "/etc", "a/", "../a", "d/x"};
	int dir = dir_of(state);

	assert_int_equal(file_mkdir(dir, "d", 0700), 0);
	create_closed(dir, "ok", "x");
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		assert_name_refused(dir, bad[i], -EINVAL);
	assert_name_refused(dir, name_256, -ENAMETOOLONG);
	create_closed(dir, name_256 + 1, "255 bytes");
	create_closed(dir, "...", "allowed");
	create_closed(dir, "..a", "allowed");
	create_closed(dir, "\n\xff", "bytes are bytes");
	assert_int_equal(count_entries(dir), 6);
	assert_int_equal(file_symlink("", dir, "s"), -EINVAL);
}

static void test_paths_are_canonical(void **state)
{
	static const char *const bad[] = {"/", "/tmp", "a/", "a//b", "//", ".", "..", "./a", "a/.",
		"a/./b", "a/..", "a/../b", "../a", "a/b/..", "../../../../etc"};
	char deep[2 * (FILE_DEPTH_MAX + 1)], *longest = malloc(FILE_PATH_BYTES_MAX + 2);
	int dir = dir_of(state), fd = -1;
	const char *name = NULL;

	assert_non_null(longest);
	assert_int_equal(file_mkdir(dir, "a", 0700), 0);
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		assert_int_equal(file_open_directory_at(dir, bad[i], &fd), -EINVAL);
		assert_int_equal(file_open_parent(dir, bad[i], &fd, &name), -EINVAL);
	}
	assert_int_equal(file_open_parent(dir, "", &fd, &name), -EINVAL);
	assert_int_equal(file_open_directory_at(dir, name_256, &fd), -ENAMETOOLONG);

	for (size_t i = 0; i < sizeof(deep); i++)
		deep[i] = i % 2 ? '/' : 'a';
	deep[sizeof(deep) - 1] = 0; /* 257 components */
	assert_int_equal(file_open_directory_at(dir, deep, &fd), -ENAMETOOLONG);
	deep[sizeof(deep) - 3] = 0;
	assert_int_equal(file_open_directory_at(dir, deep, &fd), FILE_VANISHED);

	for (size_t i = 0; i < FILE_PATH_BYTES_MAX + 1; i++)
		longest[i] = i % 200 == 199 ? '/' : 'b';
	longest[FILE_PATH_BYTES_MAX + 1] = 0;
	assert_int_equal(file_open_parent(dir, longest, &fd, &name), -ENAMETOOLONG);
	longest[FILE_PATH_BYTES_MAX] = 0;
	assert_int_equal(file_open_parent(dir, longest, &fd, &name), FILE_VANISHED);
	free(longest);
	assert_int_equal(fd, -1);
	assert_null(name);
}

static void test_open_directory(void **state)
{
	struct place *p = *state;
	char path[512];
	int fd;

	create_closed(p->dir, "file", "x");
	assert_int_equal(file_symlink(".", p->dir, "link"), 0);
	snprintf(path, sizeof(path), "%s/link", p->path);
	assert_int_equal(file_open_directory(path, &fd), 0); /* a user's own path */
	assert_true(fcntl(fd, F_GETFD) & FD_CLOEXEC);
	close(fd);
	snprintf(path, sizeof(path), "%s/file", p->path);
	assert_int_equal(file_open_directory(path, &fd), FILE_VANISHED);
	snprintf(path, sizeof(path), "%s/none", p->path);
	assert_int_equal(file_open_directory(path, &fd), FILE_VANISHED);
	assert_int_equal(file_open_directory("", &fd), FILE_VANISHED);
}

static void test_open_directory_at(void **state)
{
	int dir = dir_of(state), a, fd = -1;
	struct file_stat st, other;

	assert_int_equal(file_mkdir(dir, "a", 0755), 0);
	assert_int_equal(file_open_directory_at(dir, "a", &a), 0);
	assert_int_equal(file_mkdir(a, "b", 0755), 0);
	create_closed(a, "file", "x");
	assert_int_equal(file_symlink("b", a, "inside"), 0);
	assert_int_equal(file_symlink("/", a, "outside"), 0);
	assert_int_equal(file_symlink("/proc/self/cwd", a, "magic"), 0);

	assert_int_equal(file_open_directory_at(dir, "", &fd), 0);
	assert_int_equal(file_stat_fd(fd, &st), 0);
	assert_int_equal(file_stat_fd(dir, &other), 0);
	assert_true(st.ino == other.ino);
	close(fd);
	assert_int_equal(file_open_directory_at(dir, "a/b", &fd), 0);
	assert_int_equal(file_stat_fd(fd, &st), 0);
	assert_int_equal(file_stat_at(a, "b", &other), 0);
	assert_true(st.ino == other.ino);
	assert_true(fcntl(fd, F_GETFD) & FD_CLOEXEC);
	close(fd);

	fd = -1;
	assert_int_equal(file_open_directory_at(dir, "a/none", &fd), FILE_VANISHED);
	assert_int_equal(file_open_directory_at(dir, "none/b", &fd), FILE_VANISHED);
	assert_int_equal(file_open_directory_at(dir, "a/file", &fd), FILE_VANISHED);
	assert_int_equal(file_open_directory_at(dir, "a/file/b", &fd), FILE_VANISHED);
	assert_int_equal(file_open_directory_at(dir, "a/outside", &fd), FILE_OUTSIDE);
	assert_int_equal(file_open_directory_at(dir, "a/outside/etc", &fd), FILE_OUTSIDE);
	assert_int_equal(file_open_directory_at(dir, "a/inside", &fd), FILE_OUTSIDE);
	assert_int_equal(file_open_directory_at(dir, "a/magic", &fd), FILE_OUTSIDE);
	assert_int_equal(fd, -1);
	close(a);
}

static void test_open_parent(void **state)
{
	static const char path[] = "a/b/name";
	int dir = dir_of(state), fd = -1, b;
	const char *name = NULL;
	struct file_stat st, other;

	assert_int_equal(file_mkdir(dir, "a", 0755), 0);
	assert_int_equal(file_open_directory_at(dir, "a", &fd), 0);
	assert_int_equal(file_mkdir(fd, "b", 0755), 0);
	assert_int_equal(file_symlink("b", fd, "link"), 0);
	close(fd);
	assert_int_equal(file_open_parent(dir, path, &fd, &name), 0);
	assert_ptr_equal(name, path + 4);
	assert_int_equal(file_open_directory_at(dir, "a/b", &b), 0);
	assert_int_equal(file_stat_fd(fd, &st), 0);
	assert_int_equal(file_stat_fd(b, &other), 0);
	assert_true(st.ino == other.ino);
	close(b);
	close(fd);

	assert_int_equal(file_open_parent(dir, "top", &fd, &name), 0);
	assert_string_equal(name, "top");
	assert_int_equal(file_stat_fd(fd, &st), 0);
	assert_int_equal(file_stat_fd(dir, &other), 0);
	assert_true(st.ino == other.ino);
	close(fd);

	fd = -1;
	name = NULL;
	assert_int_equal(file_open_parent(dir, "a/link/name", &fd, &name), FILE_OUTSIDE);
	assert_int_equal(file_open_parent(dir, "a/none/name", &fd, &name), FILE_VANISHED);
	assert_int_equal(fd, -1);
	assert_null(name);
}

static void test_deepest_path(void **state)
{
	char path[2 * FILE_DEPTH_MAX];
	int dir = dir_of(state), fd = dup(dir);
	const char *name;

	for (size_t i = 0; i < FILE_DEPTH_MAX; i++) {
		int below;

		assert_int_equal(file_mkdir(fd, "a", 0755), 0);
		assert_int_equal(file_open_directory_at(fd, "a", &below), 0);
		close(fd);
		fd = below;
		path[2 * i] = 'a';
		path[2 * i + 1] = '/';
	}
	close(fd);
	path[sizeof(path) - 1] = 0;
	assert_int_equal(file_open_directory_at(dir, path, &fd), 0);
	close(fd);
	assert_int_equal(file_open_parent(dir, path, &fd, &name), 0);
	assert_ptr_equal(name, path + sizeof(path) - 2);
	close(fd);
}

/* --- mounts --- */

static void body_mounts(void *data)
{
	struct place *p = data;
	char dir_mount[512], file_mount[512];
	struct file_stat st;
	const char *name;
	int fd;

	own_mounts_or_skip();
	EXPECT(file_open_directory(p->path, &p->dir) ==
		0); /* the old one is of the old namespace */
	snprintf(dir_mount, sizeof(dir_mount), "%s/m", p->path);
	snprintf(file_mount, sizeof(file_mount), "%s/f", p->path);
	EXPECT(!mount("tmpfs", dir_mount, "tmpfs", 0, "size=64k"));
	EXPECT(!mount("/proc/version", file_mount, "", MS_BIND, NULL));

	EXPECT(file_stat_at(p->dir, "m", &st) == FILE_OUTSIDE);
	EXPECT(file_stat_at(p->dir, "f", &st) == FILE_OUTSIDE);
	EXPECT(file_stat_at(p->dir, "plain", &st) == 0);
	EXPECT(file_open_directory_at(p->dir, "m", &fd) == FILE_OUTSIDE);
	EXPECT(file_open_directory_at(p->dir, "m/x", &fd) == FILE_OUTSIDE);
	EXPECT(file_open_parent(p->dir, "m/x", &fd, &name) == FILE_OUTSIDE);
	EXPECT(file_open_parent(p->dir, "m", &fd, &name) == 0);
	EXPECT(file_open_read(p->dir, "f", &fd) == FILE_OUTSIDE);
	EXPECT(file_open_write(p->dir, "f", &fd) == FILE_OUTSIDE);
	EXPECT(file_chown_at(p->dir, "f", 0, 0) == FILE_OUTSIDE);
	EXPECT(file_set_mtime_at(p->dir, "m", 0) == FILE_OUTSIDE);
	EXPECT(file_create(p->dir, "f", 0600, &fd) == FILE_OUTSIDE);
	EXPECT(file_rmdir(p->dir, "m") == FILE_BUSY);
	EXPECT(file_unlink(p->dir, "f") == FILE_BUSY);
	EXPECT(file_rename_noreplace(p->dir, "m", p->dir, "n") == FILE_BUSY);
	EXPECT(file_exchange(p->dir, "m", p->dir, "plain") == FILE_BUSY);
	EXPECT(file_open_directory(dir_mount, &fd) == 0); /* the root itself may be a mount */
	EXPECT(file_stat_fd(fd, &st) == 0);
	EXPECT(file_rename_noreplace(p->dir, "plain", fd, "plain") == FILE_OUTSIDE);
	EXPECT(file_link(p->dir, "plain", fd, "plain") == FILE_OUTSIDE);
}

static void test_mounts_are_outside(void **state)
{
	int dir = dir_of(state);

	assert_int_equal(file_mkdir(dir, "m", 0755), 0);
	create_closed(dir, "f", "x");
	create_closed(dir, "plain", "x");
	in_child(body_mounts, *state);
}

static bool mounted_alike(int a, int b)
{
	struct file_mount x, y;

	return file_mounted_as(a, &x) == 0 && file_mounted_as(b, &y) == 0 && x.id == y.id && memcmp(x.boot, y.boot, sizeof(x.boot)) == 0;
}

/* Also where the same disk is mounted at the same place again, or at another. */
static void body_mounted_as(void *data)
{
	const struct place *p = data;
	char inside[sizeof(p->path) + 16];
	int before, again, child, other;

	own_mounts_or_skip();
	snprintf(inside, sizeof(inside), "%s/inside", p->path);
	EXPECT(mkdir(inside, 0700) == 0);
	EXPECT(!mount(p->path, p->path, "", MS_BIND, NULL));
	EXPECT(file_open_directory(p->path, &before) == 0);
	EXPECT(file_open_directory(p->path, &again) == 0);
	EXPECT(file_open_directory(inside, &child) == 0);
	EXPECT(mounted_alike(before, again) && mounted_alike(before, child));
	EXPECT(!mounted_alike(before, p->dir));
	EXPECT(!umount2(p->path, MNT_DETACH));
	EXPECT(!mount(p->path, p->path, "", MS_BIND, NULL));
	EXPECT(file_open_directory(p->path, &other) == 0);
	EXPECT(mounted_alike(before, again) && !mounted_alike(before, other));
}

static void test_mounted_as(void **state)
{
	struct file_mount m;
	int r = file_mounted_as(dir_of(state), &m);

	if (r == FILE_UNSUPPORTED) /* Linux before 6.8 */
		skip();
	assert_int_equal(r, 0);
	assert_true(m.id && memcmp(m.boot, (const uint8_t[sizeof(m.boot)]){0}, sizeof(m.boot)) != 0);
	assert_int_equal(file_mounted_as(-1, &m), -EBADF);
	in_child(body_mounted_as, *state);
}

static void body_disk_full(void *data)
{
	const struct place *p = data;
	static char block[128 * 1024];
	struct file_abilities abilities;
	int small, to, from;

	own_mounts_or_skip();
	EXPECT(!mount("tmpfs", p->path, "tmpfs", 0, "size=64k,nr_inodes=20"));
	EXPECT(file_open_directory(p->path, &small) == 0);
	memset(block, 'b', sizeof(block));
	EXPECT(file_create(p->dir, "from", 0600, &from) == 0);
	EXPECT(file_write(from, block, sizeof(block), 0) == 0);
	EXPECT(file_create(small, "to", 0600, &to) == 0);
	EXPECT(file_write(to, block, sizeof(block), 0) == -ENOSPC);
	EXPECT(file_truncate(to, 0) == 0);
	EXPECT(file_copy_range(from, 0, to, 0, sizeof(block)) == -ENOSPC);
	EXPECT(file_truncate(to, 0) == 0);
	EXPECT(file_copy_range(from, 0, to, 0, 4096) == 0);
	close(to);

	EXPECT(!mount("none", p->path, "", MS_REMOUNT | MS_RDONLY, NULL));
	EXPECT(file_create(small, "new", 0600, &to) == -EROFS);
	EXPECT(file_open_write(small, "to", &to) == -EROFS);
	EXPECT(file_open_read(small, "to", &to) == 0);
	EXPECT(file_mkdir(small, "new", 0700) == -EROFS);
	EXPECT(file_unlink(small, "to") == -EROFS);
	EXPECT(file_set_mtime_fd(to, 0) == -EROFS);
	EXPECT(file_probe(small, &abilities) == -EROFS);
}

static void test_full_and_read_only_disks(void **state)
{
	in_child(body_disk_full, *state);
}

/* --- opening files --- */

static void test_open_read_only_regular(void **state)
{
	static const char *const others[] = {"dir", "fifo", "socket", "link", "dangling"};
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	struct place *p = *state;
	struct file_stat st;
	int fd = -1, s;

	create_closed(p->dir, "file", "content");
	assert_int_equal(file_mkdir(p->dir, "dir", 0755), 0);
	assert_int_equal(mkfifoat(p->dir, "fifo", 0600), 0);
	assert_int_equal(file_symlink("file", p->dir, "link"), 0);
	assert_int_equal(file_symlink("none", p->dir, "dangling"), 0);
	s = socket(AF_UNIX, SOCK_STREAM, 0);
	assert_true(s >= 0);
	assert_true((size_t)snprintf(address.sun_path, sizeof(address.sun_path), "%s/socket",
			    p->path) < sizeof(address.sun_path));
	assert_int_equal(bind(s, (struct sockaddr *)&address, sizeof(address)), 0);
	close(s);

	for (size_t i = 0; i < ARRAY_SIZE(others); i++) {
		assert_int_equal(file_open_read(p->dir, others[i], &fd), FILE_UNSUPPORTED);
		assert_int_equal(file_open_seen(p->dir, others[i], &fd, &st), FILE_UNSUPPORTED);
		assert_int_equal(file_open_write(p->dir, others[i], &fd), FILE_UNSUPPORTED);
	}
	if (mknodat(p->dir, "device", S_IFCHR | 0666, makedev(1, 3)) == 0)
		assert_int_equal(file_open_read(p->dir, "device", &fd), FILE_UNSUPPORTED);
	assert_int_equal(file_open_read(p->dir, "none", &fd), FILE_VANISHED);
	assert_int_equal(file_open_seen(p->dir, "none", &fd, &st), FILE_VANISHED);
	assert_int_equal(file_open_seen(p->dir, "../none", &fd, &st), -EINVAL);
	assert_int_equal(file_open_write(p->dir, "none", &fd), FILE_VANISHED);
	assert_int_equal(fd, -1);
	assert_int_equal(file_open_seen(p->dir, "file", &fd, &st), 0);
	assert_int_equal(st.size, strlen("content"));
	close(fd);
	assert_int_equal(file_open_read(p->dir, "file", &fd), 0);
	assert_true(fcntl(fd, F_GETFD) & FD_CLOEXEC);
	assert_true(fcntl(fd, F_GETFL) & O_NOATIME);
	assert_int_equal(file_write(fd, "x", 1, 0), -EBADF);
	close(fd);
	assert_int_equal(file_open_write(p->dir, "file", &fd), 0);
	assert_int_equal(file_write(fd, "C", 1, 0), 0);
	close(fd);
	assert_content(p->dir, "file", "Content");
}

/* A writer waiting for a reader must go on waiting: we are none. */
static void test_fifo_writer_is_not_woken(void **state)
{
	int dir = dir_of(state), fd = -1, status;
	pid_t pid;

	assert_int_equal(mkfifoat(dir, "fifo", 0600), 0);
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0)
		_exit(openat(dir, "fifo", O_WRONLY) >= 0 ? 0 : 1);
	sleep_ms(30);
	assert_int_equal(file_open_read(dir, "fifo", &fd), FILE_UNSUPPORTED);
	sleep_ms(30);
	assert_int_equal(waitpid(pid, &status, WNOHANG), 0);
	kill(pid, SIGKILL);
	assert_int_equal(waitpid(pid, &status, 0), pid);
}

static void body_denied(void *data)
{
	const struct place *p = data;
	struct file_stat st;
	int fd, locked = openat(p->dir, "locked", O_PATH | O_DIRECTORY);

	if (geteuid() == 0 && (setresgid(65534, 65534, 65534) || setresuid(65534, 65534, 65534)))
		_exit(SKIP);
	EXPECT(file_open_read(p->dir, "secret", &fd) == FILE_DENIED);
	EXPECT(file_open_write(p->dir, "secret", &fd) == FILE_DENIED);
	EXPECT(file_open_directory_at(p->dir, "locked", &fd) == FILE_DENIED);
	EXPECT(file_open_directory_at(p->dir, "locked/below", &fd) == FILE_DENIED);
	EXPECT(file_chown_at(locked, "link", 0, 0) == -EACCES); /* not reached: nothing is said about what may be set */
	EXPECT(file_set_mtime_at(locked, "link", 0) == -EACCES);
	EXPECT(file_stat_at(p->dir, "secret", &st) == 0);
	if (st.uid == 65534)
		return;
	EXPECT(file_open_read(p->dir, "public", &fd) == 0); /* not ours: without O_NOATIME */
	EXPECT(!(fcntl(fd, F_GETFL) & O_NOATIME));
	EXPECT(file_lease_read(fd) == FILE_UNSUPPORTED);
	EXPECT(file_chmod_fd(fd, 0777) == FILE_DENIED);
	EXPECT(file_chown_fd(fd, 65534, 65534) == FILE_DENIED);
	EXPECT(file_set_mtime_fd(fd, 0) == FILE_DENIED);
	EXPECT(file_create(p->dir, "new", 0600, &fd) == FILE_DENIED);
	EXPECT(file_mkdir(p->dir, "new", 0700) == FILE_DENIED);
	EXPECT(file_unlink(p->dir, "public") == FILE_DENIED);
}

static void test_denied(void **state)
{
	struct place *p = *state;
	int fd;

	assert_int_equal(chmod(p->path, 0755), 0);
	create_closed(p->dir, "public", "x");
	fd = create(p->dir, "secret", "x");
	assert_int_equal(file_chmod_fd(fd, 0), 0);
	close(fd);
	assert_int_equal(file_mkdir(p->dir, "locked", 0), 0);
	in_child(body_denied, p);
	assert_int_equal(file_open_directory(p->path, &fd), 0);
	close(fd);
	assert_int_equal(file_rmdir(p->dir, "locked"), 0);
}

static void test_create(void **state)
{
	int dir = dir_of(state), fd = -1;
	struct file_stat st;

	assert_int_equal(file_symlink("elsewhere", dir, "dangling"), 0);
	assert_int_equal(file_mkdir(dir, "dir", 0755), 0);
	assert_int_equal(file_create(dir, "new", 0640, &fd), 0);
	assert_true(fcntl(fd, F_GETFD) & FD_CLOEXEC);
	assert_int_equal(fcntl(fd, F_GETFL) & O_ACCMODE, O_RDWR);
	assert_int_equal(file_stat_fd(fd, &st), 0);
	assert_int_equal(st.mode, 0640);
	assert_int_equal(st.size, 0);
	close(fd);
	fd = -1;
	assert_int_equal(file_create(dir, "new", 0640, &fd), FILE_EXISTS);
	assert_int_equal(file_create(dir, "dangling", 0640, &fd), FILE_EXISTS);
	assert_int_equal(file_create(dir, "dir", 0640, &fd), FILE_EXISTS);
	assert_int_equal(fd, -1);
	assert_absent(dir, "elsewhere");
}

/* --- looking --- */

static void test_stat(void **state)
{
	int dir = dir_of(state), fd = create(dir, "file", "12345");
	struct file_stat st, again;

	assert_int_equal(file_chmod_fd(fd, 06751), 0);
	assert_int_equal(file_link(dir, "file", dir, "second"), 0);
	assert_int_equal(file_stat_at(dir, "file", &st), 0);
	assert_int_equal(st.kind, FILE_KIND_REGULAR);
	assert_int_equal(st.mode, 06751);
	assert_int_equal(st.size, 5);
	assert_int_equal(st.nlink, 2);
	assert_int_equal(st.uid, geteuid());
	assert_true(st.ino && st.mtime_ns > 0 && st.ctime_ns >= st.mtime_ns);
	assert_int_equal(file_stat_fd(fd, &again), 0);
	assert_true(again.kind == st.kind && again.mode == st.mode && again.uid == st.uid &&
		    again.gid == st.gid && again.nlink == st.nlink && again.size == st.size &&
		    again.blocks == st.blocks && again.ino == st.ino && again.dev == st.dev &&
		    again.mtime_ns == st.mtime_ns && again.ctime_ns == st.ctime_ns &&
		    again.btime_ns == st.btime_ns);
	close(fd);

	assert_int_equal(file_mkdir(dir, "dir", 0755), 0);
	assert_int_equal(file_symlink("dir", dir, "link"), 0);
	assert_int_equal(mkfifoat(dir, "fifo", 0600), 0);
	assert_int_equal(file_stat_at(dir, "dir", &st), 0);
	assert_int_equal(st.kind, FILE_KIND_DIRECTORY);
	assert_int_equal(file_stat_at(dir, "link", &st), 0);
	assert_int_equal(st.kind, FILE_KIND_SYMLINK);
	assert_int_equal(file_stat_at(dir, "fifo", &st), 0);
	assert_int_equal(st.kind, FILE_KIND_OTHER);
	st.ino = 77;
	assert_int_equal(file_stat_at(dir, "none", &st), FILE_VANISHED);
	assert_int_equal(st.ino, 77); /* untouched on failure */
	assert_int_equal(file_stat_fd(-1, &st), -EBADF);
}

static void test_mtime(void **state)
{
	static const int64_t times[] = {
		0, 1, -1, 1234567890123456789, -86400 * NS_PER_S + 5, -NS_PER_S, NS_PER_S - 1};
	int dir = dir_of(state), fd = create(dir, "file", "x");
	struct stat before, after;
	struct file_stat st;

	assert_int_equal(fstat(fd, &before), 0);
	for (size_t i = 0; i < ARRAY_SIZE(times); i++) {
		assert_int_equal(file_set_mtime_fd(fd, times[i]), 0);
		assert_int_equal(file_stat_fd(fd, &st), 0);
		assert_true(st.mtime_ns == times[i]);
	}
	assert_int_equal(fstat(fd, &after), 0);
	assert_memory_equal(&before.st_atim, &after.st_atim, sizeof(before.st_atim));
	close(fd);

	assert_int_equal(file_symlink("file", dir, "link"), 0);
	assert_int_equal(file_set_mtime_at(dir, "link", 5 * NS_PER_S + 7), 0);
	assert_int_equal(file_stat_at(dir, "link", &st), 0);
	assert_true(st.mtime_ns == 5 * NS_PER_S + 7);
	assert_int_equal(file_stat_at(dir, "file", &st), 0);
	assert_true(st.mtime_ns == NS_PER_S - 1);
	assert_int_equal(file_set_mtime_at(dir, "file", 0), FILE_UNSUPPORTED);
	assert_int_equal(file_set_mtime_at(dir, "none", 0), FILE_VANISHED);
}

/* Seconds that no nanosecond count holds: the nearest, not an overflow. */
static void test_mtime_saturates(void **state)
{
	struct timespec far[2] = {{.tv_nsec = UTIME_OMIT}, {.tv_sec = INT64_C(10500000000)}};
	int dir = dir_of(state), fd = create(dir, "file", "x");
	struct file_stat st;
	struct stat s;

	assert_int_equal(futimens(fd, far), 0);
	assert_int_equal(fstat(fd, &s), 0);
	assert_int_equal(file_stat_fd(fd, &st), 0);
	if (s.st_mtim.tv_sec == far[1].tv_sec) /* else the file system has no such times */
		assert_true(st.mtime_ns == INT64_MAX);
	assert_int_equal(file_set_mtime_fd(fd, INT64_MAX), 0);
	assert_int_equal(file_set_mtime_fd(fd, INT64_MIN), 0);
	close(fd);
}

static void test_readlink(void **state)
{
	static const char hostile[] = "../../\n\xff/etc/passwd";
	int dir = dir_of(state);
	char *target = NULL, longest[4096];

	assert_int_equal(file_symlink(hostile, dir, "link"), 0);
	assert_int_equal(file_readlink(dir, "link", &target), 0);
	assert_string_equal(target, hostile);
	free(target);
	target = NULL;
	memset(longest, 'x', sizeof(longest));
	longest[sizeof(longest) - 1] = 0;
	if (file_symlink(longest, dir, "long") == 0) {
		assert_int_equal(file_readlink(dir, "long", &target), 0);
		assert_string_equal(target, longest);
		free(target);
		target = NULL;
	}
	create_closed(dir, "file", "x");
	assert_int_equal(file_readlink(dir, "file", &target), FILE_UNSUPPORTED);
	assert_int_equal(file_readlink(dir, "none", &target), FILE_VANISHED);
	assert_null(target);
	assert_int_equal(file_symlink("x", dir, "link"), FILE_EXISTS);
}

static void test_identity(void **state)
{
	int dir = dir_of(state), fd = create(dir, "file", "x");
	uint64_t a = 0, b = 1, free_bytes = 0, total_bytes = 0;
	int r;

	assert_int_equal(file_system_id(dir, &a), 0);
	assert_int_equal(file_system_id(fd, &b), 0);
	assert_true(a == b);
	assert_int_equal(file_system_id(-1, &b), -EBADF);
	assert_int_equal(file_space(dir, &free_bytes, &total_bytes), 0);
	assert_true(free_bytes <= total_bytes && total_bytes > 0);

	r = file_generation(fd, &a);
	assert_true(r == 0 || r == FILE_UNSUPPORTED);
	if (r == 0) {
		assert_int_equal(file_generation(fd, &b), 0);
		assert_true(a == b);
	}
	close(fd);
}

static void test_hints(void **state)
{
	int dir = dir_of(state), r = file_set_hints(dir);
	struct statfs fs;
	int flags = 0;

	if (r == FILE_UNSUPPORTED)
		skip();
	assert_int_equal(r, 0);
	assert_int_equal(ioctl(dir, FS_IOC_GETFLAGS, &flags), 0);
	assert_true(flags & FS_NODUMP_FL);
	assert_int_equal(fstatfs(dir, &fs), 0);
	if (fs.f_type == 0xef53) /* ext4 */
		assert_true(flags & FS_TOPDIR_FL);
	assert_int_equal(file_set_hints(dir), 0);
}

/* --- listing --- */

static void test_list(void **state)
{
	enum { COUNT = 3000 };
	int dir = dir_of(state);
	struct file_dir *one = NULL, *two = NULL;
	bool seen[COUNT] = {false};
	const char *name;
	int r;

	assert_int_equal(count_entries(dir), 0);
	for (int i = 0; i < COUNT; i++) {
		char made[64];
		int fd;

		snprintf(made, sizeof(made), "a-name-that-takes-some-room-%d", i);
		assert_int_equal(file_create(dir, made, 0600, &fd), 0);
		close(fd);
	}
	assert_int_equal(file_dir_open(dir, &one), 0);
	assert_int_equal(file_dir_open(dir, &two), 0);
	assert_int_equal(file_dir_next(two, &name), 0); /* must not eat from the first */
	while (!(r = file_dir_next(one, &name))) {
		int i = atoi(strrchr(name, '-') + 1);

		assert_in_range(i, 0, COUNT - 1);
		assert_false(seen[i]);
		seen[i] = true;
	}
	assert_int_equal(r, FILE_END);
	assert_int_equal(file_dir_next(one, &name), FILE_END);
	for (int i = 0; i < COUNT; i++)
		assert_true(seen[i]);
	file_dir_close(one);
	file_dir_close(two);
	file_dir_close(NULL);
	assert_int_equal(
		count_entries(dir), COUNT); /* the descriptor given starts anew each time */
}

/* Absences in a directory that is gone prove nothing. */
static void test_list_removed_directory(void **state)
{
	int dir = dir_of(state), fd;
	struct file_dir *d = NULL;
	const char *name;
	int r;

	assert_int_equal(file_mkdir(dir, "d", 0755), 0);
	assert_int_equal(file_open_directory_at(dir, "d", &fd), 0);
	assert_int_equal(file_dir_open(fd, &d), 0);
	assert_int_equal(file_rmdir(dir, "d"), 0);
	assert_int_equal(file_dir_next(d, &name), -ENOENT);
	file_dir_close(d);
	d = NULL;
	r = file_dir_open(fd, &d);
	if (r == 0) {
		assert_int_equal(file_dir_next(d, &name), -ENOENT);
		file_dir_close(d);
	} else {
		assert_int_equal(r, FILE_VANISHED);
	}
	close(fd);
}

static void test_list_something_else(void **state)
{
	int dir = dir_of(state), fd = create(dir, "file", "x");
	struct file_dir *d = NULL;

	assert_int_equal(file_dir_open(fd, &d), FILE_VANISHED);
	assert_null(d);
	close(fd);
}

/* --- reading and writing --- */

struct transfers {
	int (*read)(int fd, void *ret, size_t n, uint64_t offset, size_t *ret_n);
	int (*write)(int fd, const void *p, size_t n, uint64_t offset);
};

static int read_uncached(int fd, void *ret, size_t n, uint64_t offset, size_t *ret_n)
{
	return file_read_as(fd, ret, n, offset, true, ret_n);
}

static int write_uncached(int fd, const void *p, size_t n, uint64_t offset)
{
	return file_write_as(fd, p, n, offset, true);
}

static const struct transfers cached = {file_read, file_write}, uncached = {read_uncached, write_uncached};

static void read_and_write(int dir, const char *name, const struct transfers *t)
{
	int fd = create(dir, name, "0123456789");
	char got[16];
	size_t n = 99;

	assert_int_equal(t->read(fd, got, 4, 3, &n), 0);
	assert_int_equal(n, 4);
	assert_memory_equal(got, "3456", 4);
	assert_int_equal(t->read(fd, got, sizeof(got), 6, &n), 0);
	assert_int_equal(n, 4);
	assert_int_equal(t->read(fd, got, sizeof(got), 10, &n), 0);
	assert_int_equal(n, 0);
	assert_int_equal(t->read(fd, got, 0, 0, &n), 0);
	assert_int_equal(t->write(fd, "ab", 2, 12), 0);
	assert_int_equal(t->write(fd, "", 0, 99), 0);
	assert_int_equal(t->read(fd, got, sizeof(got), 9, &n), 0);
	assert_int_equal(n, 5);
	assert_memory_equal(got, "9\0\0ab", 5);
	assert_int_equal(file_truncate(fd, 3), 0);
	assert_int_equal(t->read(fd, got, sizeof(got), 0, &n), 0);
	assert_int_equal(n, 3);
	assert_int_equal(lseek(fd, 0, SEEK_CUR), 0);

	n = 99;
	assert_int_equal(t->read(fd, got, 1, UINT64_MAX, &n), -EFBIG);
	assert_int_equal(t->read(fd, got, 2, INT64_MAX - 1, &n), -EFBIG);
	assert_int_equal(t->write(fd, got, 1, INT64_MAX), -EFBIG);
	assert_int_equal(file_truncate(fd, UINT64_MAX), -EFBIG);
	assert_int_equal(n, 99);
	close(fd);
	assert_int_equal(t->read(-1, got, 1, 0, &n), -EBADF);
	assert_int_equal(t->write(-1, got, 1, 0), -EBADF);
	assert_int_equal(t->read(dir, got, 1, 0, &n), -EISDIR);
}

static void test_read_and_write(void **state)
{
	read_and_write(dir_of(state), "file", &cached);
	read_and_write(dir_of(state), "uncached", &uncached);
}

/* How many of its pages are in memory. */
static size_t resident(int fd, size_t bytes)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE), pages = bytes / page, n = 0;
	unsigned char in[4096];
	void *p = mmap(NULL, bytes, PROT_READ, MAP_SHARED, fd, 0);

	assert_true(pages <= sizeof(in) && p != MAP_FAILED);
	assert_int_equal(mincore(p, bytes, in), 0);
	for (size_t i = 0; i < pages; i++)
		n += in[i] & 1;
	munmap(p, bytes);
	return n;
}

/* It is dropped a moment after it is on the disk; a page that somebody uses just then may stay. */
static bool is_dropped(int fd, size_t bytes)
{
	size_t few = bytes / (size_t)sysconf(_SC_PAGESIZE) / 4;

	for (int i = 0; i < 1000 && resident(fd, bytes) > few; i++)
		usleep(10000);
	return resident(fd, bytes) <= few;
}

/* Where the kernel and the file system can. */
static void test_uncached_leaves_memory_to_others(void **state)
{
	static char bytes[4 * 1024 * KIB], got[sizeof(bytes)];
	struct iovec v = {bytes, 1};
	int fd = create(dir_of(state), "file", "");
	struct utsname u;
	size_t n = 0;

	assert_int_equal(uname(&u), 0);
	if (strverscmp(u.release, "6.16") < 0 || pwritev2(fd, &v, 1, 0, 0x80 /* RWF_DONTCACHE */) < 0) {
		close(fd);
		skip();
	}
	memset(bytes, 'u', sizeof(bytes));
	assert_int_equal(file_write(fd, bytes, sizeof(bytes), 0), 0);
	assert_int_equal(file_fsync(fd), 0);
	assert_int_equal(resident(fd, sizeof(bytes)), sizeof(bytes) / (size_t)sysconf(_SC_PAGESIZE));
	assert_int_equal(file_truncate(fd, 0), 0);
	assert_int_equal(write_uncached(fd, bytes, sizeof(bytes), 0), 0);
	assert_int_equal(file_fsync(fd), 0);
	assert_true(is_dropped(fd, sizeof(bytes)));
	assert_int_equal(read_uncached(fd, got, sizeof(got), 0, &n), 0);
	assert_int_equal(n, sizeof(got));
	assert_memory_equal(got, bytes, sizeof(got));
	assert_true(is_dropped(fd, sizeof(bytes)));
	close(fd);
}

/* The kernel writes what still fits and tells the rest at the next call. */
static void short_write_goes_on(int dir, const char *name, const struct transfers *t)
{
	int fd = create(dir, name, "");
	struct rlimit old, low;
	char block[10000];
	struct file_stat st;

	memset(block, 'b', sizeof(block));
	signal(SIGXFSZ, SIG_IGN);
	assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
	low = old;
	low.rlim_cur = 5000;
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &low), 0);
	assert_int_equal(t->write(fd, block, sizeof(block), 0), -EFBIG);
	assert_int_equal(file_truncate(fd, 6000), -EFBIG);
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
	assert_int_equal(file_stat_fd(fd, &st), 0);
	assert_int_equal(st.size, 5000);
	close(fd);

	fd = open("/dev/full", O_RDWR | O_CLOEXEC);
	if (fd >= 0) {
		assert_int_equal(t->write(fd, block, sizeof(block), 0), -ENOSPC);
		close(fd);
	}
}

static void test_short_write_goes_on(void **state)
{
	short_write_goes_on(dir_of(state), "file", &cached);
	short_write_goes_on(dir_of(state), "uncached", &uncached);
}

static void test_next_data(void **state)
{
	int fd = create(dir_of(state), "file", "");
	uint64_t from = 7, to = 7, size = 1024 * KIB;
	int r;

	assert_int_equal(file_next_data(fd, 0, 0, &from, &to), FILE_END);
	assert_int_equal(file_truncate(fd, size), 0);
	r = file_next_data(fd, 0, size, &from, &to);
	if (r == 0) /* no holes here, or not told: all is data */
		skip();
	assert_int_equal(r, FILE_END);
	assert_int_equal(from, 7);
	assert_int_equal(file_write(fd, "x", 1, 256 * KIB), 0);
	assert_int_equal(file_next_data(fd, 0, size, &from, &to), 0);
	assert_in_range(from, 1, 256 * KIB);
	assert_in_range(to, 256 * KIB + 1, size - 1);
	assert_int_equal(file_next_data(fd, 256 * KIB, size, &from, &to), 0);
	assert_int_equal(from, 256 * KIB); /* in the middle of data */
	assert_int_equal(file_next_data(fd, to, size, &from, &to), FILE_END);
	/* the caller's size rules, whatever the file has become */
	assert_int_equal(file_next_data(fd, 256 * KIB, 256 * KIB + 1, &from, &to), 0);
	assert_int_equal(from, 256 * KIB);
	assert_int_equal(to, 256 * KIB + 1);
	assert_int_equal(file_next_data(fd, 0, 100 * KIB, &from, &to), FILE_END);
	assert_int_equal(file_next_data(fd, 0, 100 * size, &from, &to), 0);
	assert_true(to < size);
	assert_int_equal(file_next_data(fd, size + 1, 100 * size, &from, &to), FILE_END);
	assert_int_equal(file_next_data(fd, 0, UINT64_MAX, &from, &to), -EFBIG);
	close(fd);
}

static void test_next_data_without_holes(void **state)
{
	uint64_t from = 7, to = 7;
	int fds[2];

	(void)state;
	assert_int_equal(pipe(fds), 0); /* a descriptor that cannot be asked at all */
	assert_int_equal(file_next_data(fds[0], 5, 10, &from, &to), -ESPIPE);
	close(fds[0]);
	close(fds[1]);
}

static void test_copy_keeps_holes(void **state)
{
	const uint64_t size = 8192 * KIB;
	int dir = dir_of(state), from = create(dir, "from", "head"), to = create(dir, "to", "");
	struct file_stat source, target;
	uint64_t a, b;
	char got[8];
	size_t n;

	assert_int_equal(file_write(from, "middle", 6, 4096 * KIB), 0);
	assert_int_equal(file_truncate(from, size), 0);
	assert_int_equal(file_copy_range(from, 0, to, 0, size), 0);
	assert_int_equal(file_stat_fd(from, &source), 0);
	assert_int_equal(file_stat_fd(to, &target), 0);
	assert_int_equal(target.size, size);
	assert_int_equal(file_read(to, got, 6, 4096 * KIB, &n), 0);
	assert_memory_equal(got, "middle", 6);
	assert_int_equal(file_read(to, got, 4, 0, &n), 0);
	assert_memory_equal(got, "head", 4);
	if (file_next_data(from, 64 * KIB, 128 * KIB, &a, &b) == FILE_END) {
		assert_int_equal(
			file_next_data(to, 64 * KIB, 4096 * KIB - 64 * KIB, &a, &b), FILE_END);
		assert_true(target.blocks <= source.blocks + 128);
	}
	close(from);
	close(to);
}

static void test_copy_edges(void **state)
{
	int dir = dir_of(state), from = create(dir, "from", "0123456789");
	int to = create(dir, "to", "abcdefghij");
	struct file_stat st;

	assert_int_equal(file_copy_range(from, 0, to, 0, 0), 0);
	assert_content(dir, "to", "abcdefghij");
	assert_int_equal(file_copy_range(from, 2, to, 5, 3), 0);
	assert_content(dir, "to", "abcde234ij");
	assert_int_equal(file_copy_range(from, 8, to, 9, 2), 0);
	assert_content(dir, "to", "abcde234i89");
	assert_int_equal(file_copy_range(from, 0, from, 10, 10), 0); /* within one file */
	assert_content(dir, "from", "01234567890123456789");

	assert_int_equal(file_copy_range(from, 0, to, 0, 21), FILE_END); /* the source is shorter */
	assert_int_equal(file_copy_range(from, 100, to, 0, 1), FILE_END);
	assert_int_equal(file_copy_range(from, UINT64_MAX, to, 0, 1), -EFBIG);
	assert_int_equal(file_copy_range(from, 0, to, INT64_MAX, 1), -EFBIG);
	assert_int_equal(file_stat_fd(to, &st), 0);
	assert_int_equal(st.size, 11);
	close(to);
	assert_int_equal(file_open_read(dir, "to", &to), 0);
	assert_int_equal(file_copy_range(from, 0, to, 0, 5), -EBADF);
	close(to);
	close(from);
}

enum { MODEL_BYTES = 200000 };

/* Random content with holes, to disk and to memory alike. */
static void scatter(int fd, char *model, size_t size)
{
	memset(model, 0, MODEL_BYTES);
	assert_int_equal(file_truncate(fd, 0), 0);
	assert_int_equal(file_truncate(fd, size), 0);
	for (uint64_t i = random_below(4); i-- > 0;) {
		size_t at = random_below(size), n = random_below(size - at + 1);

		n = n > 30000 ? 30000 : n;
		random_bytes(model + at, n);
		assert_int_equal(file_write(fd, model + at, n, at), 0);
	}
}

static void check_copies(int from, int to)
{
	char *source = malloc(MODEL_BYTES), *target = malloc(MODEL_BYTES);
	char *got = malloc(MODEL_BYTES);

	assert_true(source && target && got);
	for (int round = 0; round < 150; round++) {
		size_t size = 1 + random_below(MODEL_BYTES), target_size = size / 2 + 1, n, at,
		       to_at;

		scatter(from, source, size);
		scatter(to, target, target_size);
		at = random_below(size);
		n = random_below(size - at + 1);
		to_at = random_below(MODEL_BYTES - n);
		if (random_below(2))
			to_at = to_at / 4096 * 4096;
		assert_int_equal(file_copy_range(from, at, to, to_at, n), 0);
		memcpy(target + to_at, source + at, n);
		if (n && to_at + n > target_size)
			target_size = to_at + n;
		assert_int_equal(file_read(to, got, MODEL_BYTES, 0, &n), 0);
		assert_int_equal(n, target_size);
		assert_true(memcmp(got, target, n) == 0);
	}
	free(source);
	free(target);
	free(got);
}

/* Old bytes of the target are gone where the source has holes, at any offset. */
static void test_copy_equals_model(void **state)
{
	int dir = dir_of(state), from = create(dir, "from", ""), to = create(dir, "to", "");

	check_copies(from, to);
	close(from);
	close(to);
}

static void test_copy_across_file_systems(void **state)
{
	int to = create(dir_of(state), "to", ""), from = memfd_create("from", MFD_CLOEXEC);

	if (from < 0)
		skip();
	check_copies(from, to);
	check_copies(to, from);
	close(from);
	close(to);
}

static void test_clone(void **state)
{
	int dir = dir_of(state), from = create(dir, "from", "content"),
	    to = create(dir, "to", "old");
	int other = memfd_create("other", MFD_CLOEXEC), r = file_clone(from, to);

	assert_true(r == 0 || r == FILE_UNSUPPORTED);
	assert_content(dir, "to", r == 0 ? "content" : "old");
	if (other >= 0)
		assert_int_equal(file_clone(other, to), FILE_UNSUPPORTED);
	close(other);
	close(from);
	close(to);
}

/* --- changing names --- */

static void test_remove(void **state)
{
	int dir = dir_of(state), fd;

	assert_int_equal(file_mkdir(dir, "d", 0750), 0);
	assert_int_equal(file_mkdir(dir, "d", 0750), FILE_EXISTS);
	assert_int_equal(file_open_directory_at(dir, "d", &fd), 0);
	create_closed(fd, "file", "x");
	assert_int_equal(file_rmdir(dir, "d"), FILE_NOT_EMPTY);
	assert_int_equal(file_unlink(dir, "d"), FILE_IS_DIRECTORY);
	assert_int_equal(file_rmdir(fd, "file"), FILE_VANISHED);
	assert_int_equal(file_unlink(fd, "file"), 0);
	assert_int_equal(file_unlink(fd, "file"), FILE_VANISHED);
	assert_int_equal(file_rmdir(dir, "d"), 0);
	assert_int_equal(file_rmdir(dir, "d"), FILE_VANISHED);
	assert_int_equal(file_mkdir(fd, "below", 0700), FILE_VANISHED); /* in what is gone */
	close(fd);
}

static void test_unlink_takes_the_symlink(void **state)
{
	int dir = dir_of(state);

	create_closed(dir, "file", "x");
	assert_int_equal(file_symlink("file", dir, "link"), 0);
	assert_int_equal(file_unlink(dir, "link"), 0);
	assert_content(dir, "file", "x");
}

static void test_rename(void **state)
{
	int dir = dir_of(state), d;

	assert_int_equal(file_mkdir(dir, "d", 0755), 0);
	assert_int_equal(file_open_directory_at(dir, "d", &d), 0);
	create_closed(dir, "a", "a");
	create_closed(dir, "b", "b");

	assert_int_equal(file_rename_noreplace(dir, "a", dir, "b"), FILE_EXISTS);
	assert_int_equal(file_rename_noreplace(dir, "a", dir, "d"), FILE_EXISTS);
	assert_int_equal(file_rename_noreplace(dir, "none", dir, "c"), FILE_VANISHED);
	assert_int_equal(file_rename_noreplace(dir, "a", d, "a"), 0);
	assert_content(d, "a", "a");
	assert_absent(dir, "a");

	assert_int_equal(file_rename_replace(dir, "b", dir, "d"), FILE_IS_DIRECTORY);
	assert_int_equal(file_rename_replace(dir, "none", dir, "d"), FILE_VANISHED);
	assert_int_equal(file_mkdir(dir, "e", 0755), 0);
	assert_int_equal(file_rename_replace(dir, "e", dir, "d"), FILE_NOT_EMPTY);
	assert_int_equal(file_rename_replace(dir, "d", d, "itself"), FILE_UNSUPPORTED);
	assert_int_equal(file_rename_replace(dir, "b", d, "a"), 0);
	assert_content(d, "a", "b");

	assert_int_equal(file_link(d, "a", dir, "second"), 0);
	assert_int_equal(file_link(d, "a", dir, "second"), FILE_EXISTS);
	assert_int_equal(file_link(d, "none", dir, "third"), FILE_VANISHED);
	assert_int_equal(file_link(dir, "d", dir, "third"), FILE_DENIED);
	assert_int_equal(file_rename_replace(d, "a", dir, "second"), 0);
	assert_content(d, "a", "b"); /* one inode: both stay */
	assert_content(dir, "second", "b");
	close(d);
}

static void test_link_of_a_symlink(void **state)
{
	int dir = dir_of(state);
	struct file_stat st;

	create_closed(dir, "file", "x");
	assert_int_equal(file_symlink("file", dir, "link"), 0);
	assert_int_equal(file_link(dir, "link", dir, "second"), 0);
	assert_int_equal(file_stat_at(dir, "second", &st), 0);
	assert_int_equal(st.kind, FILE_KIND_SYMLINK);
}

static void test_exchange(void **state)
{
	int dir = dir_of(state), d, r;
	struct file_stat st;

	assert_int_equal(file_mkdir(dir, "d", 0755), 0);
	assert_int_equal(file_open_directory_at(dir, "d", &d), 0);
	create_closed(dir, "a", "a");
	create_closed(d, "b", "b");
	r = file_exchange(dir, "a", d, "b");
	if (r == FILE_UNSUPPORTED)
		skip();
	assert_int_equal(r, 0);
	assert_content(dir, "a", "b");
	assert_content(d, "b", "a");
	assert_int_equal(file_exchange(dir, "a", dir, "none"), FILE_VANISHED);
	assert_int_equal(file_exchange(dir, "none", dir, "a"), FILE_VANISHED);
	assert_content(dir, "a", "b");
	assert_int_equal(file_exchange(dir, "a", dir, "d"), 0); /* kinds may differ */
	assert_int_equal(file_stat_at(dir, "a", &st), 0);
	assert_int_equal(st.kind, FILE_KIND_DIRECTORY);
	assert_content(dir, "d", "b");
	close(d);
}

/* --- attributes --- */

static void test_chmod_and_chown(void **state)
{
	int dir = dir_of(state), fd = create(dir, "file", "x");
	struct file_stat st;

	assert_int_equal(file_chmod_fd(fd, 0600), 0);
	assert_int_equal(file_symlink("file", dir, "link"), 0);
	assert_int_equal(file_chown_at(dir, "file", 1, 1), FILE_UNSUPPORTED);
	assert_int_equal(file_chown_at(dir, "none", 1, 1), FILE_VANISHED);
	assert_int_equal(file_chown_fd(fd, geteuid(), getegid()), 0);
	if (geteuid() == 0) {
		assert_int_equal(file_chown_fd(fd, 12, 34), 0);
		assert_int_equal(file_chown_at(dir, "link", 56, 78), 0);
		assert_int_equal(file_stat_at(dir, "link", &st), 0);
		assert_int_equal(st.uid, 56);
		assert_int_equal(st.gid, 78);
		assert_int_equal(file_stat_at(dir, "file", &st), 0);
		assert_int_equal(st.uid, 12);
		assert_int_equal(st.gid, 34);
		assert_int_equal(st.mode, 0600);
	}
	close(fd);
}

/* --- durability and exclusion --- */

static void test_sync(void **state)
{
	int dir = dir_of(state), fd = create(dir, "file", "x"), fds[2];

	assert_int_equal(file_start_writeback(fd), 0);
	assert_int_equal(file_fsync(fd), 0);
	assert_int_equal(file_fsync(dir), 0);
	assert_int_equal(file_fsync(-1), -EBADF);
	assert_int_equal(file_syncfs(-1), -EBADF);
	close(fd);
	assert_int_equal(pipe(fds), 0);
	assert_int_equal(file_fsync(fds[0]), FILE_UNSUPPORTED);
	close(fds[0]);
	close(fds[1]);
}

static void test_lease(void **state)
{
	int dir = dir_of(state), writer = create(dir, "file", "content"), fd, other = -1, r;
	void *map;

	assert_int_equal(file_open_read(dir, "file", &fd), 0);
	assert_int_equal(file_lease_read(fd), FILE_BUSY);
	map = mmap(NULL, 7, PROT_READ | PROT_WRITE, MAP_SHARED, writer, 0);
	assert_true(map != MAP_FAILED);
	close(writer);
	assert_int_equal(file_lease_read(fd), FILE_BUSY); /* the mapping alone */
	munmap(map, 7);
	r = file_lease_read(fd);
	if (r == FILE_UNSUPPORTED) {
		close(fd);
		skip();
	}
	assert_int_equal(r, 0);
	assert_int_equal(file_open_read(dir, "file", &other), 0); /* readers are welcome */
	close(other);
	assert_false(file_lease_broken(fd));
	assert_int_equal(file_lease_release(fd), 0);
	assert_true(file_lease_broken(fd));

	assert_int_equal(file_lease_read(fd), 0);
	other = -1;
	/* An opener for writing breaks it; we live on, do not wait, and are told. */
	assert_int_equal(file_open_write(dir, "file", &other), FILE_BUSY);
	assert_int_equal(other, -1);
	assert_true(file_lease_broken(fd));
	assert_int_equal(file_lease_release(fd), FILE_BUSY);
	assert_int_equal(file_open_write(dir, "file", &other), 0);
	assert_int_equal(file_lease_read(fd), FILE_BUSY);
	close(other);
	close(fd);
	assert_int_equal(file_lease_read(dir), FILE_UNSUPPORTED);
}

static void test_lock(void **state)
{
	int dir = dir_of(state), one = create(dir, "lock", ""), two;

	assert_int_equal(file_open_write(dir, "lock", &two), 0);
	assert_int_equal(file_lock(one), 0);
	assert_int_equal(file_lock(one), 0); /* again: the same lock */
	assert_int_equal(file_lock(two), FILE_BUSY);
	close(one);
	assert_int_equal(file_lock(two), 0);
	close(two);
}

/* --- abilities and words --- */

static void test_probe(void **state)
{
	int dir = dir_of(state), from, to;
	struct file_abilities a, again;
	struct file_stat st;

	memset(&a, 0x55, sizeof(a));
	assert_int_equal(file_probe(dir, &a), 0);
	assert_int_equal(count_entries(dir), 0);
	assert_int_equal(file_probe(dir, &again), 0);
	assert_true(a.exchange == again.exchange && a.reflink == again.reflink);

	/* what it says is what happens */
	from = create(dir, "from", "x");
	to = create(dir, "to", "y");
	assert_int_equal(file_clone(from, to) == 0, a.reflink);
	assert_int_equal(file_exchange(dir, "from", dir, "to") == 0, a.exchange);
	assert_int_equal(file_rename_noreplace(dir, "from", dir, "third") == 0, a.no_replace);
	assert_int_equal(file_stat_at(dir, "TO", &st) == 0, a.fold_case);
	assert_int_equal(file_symlink("x", dir, "link") == 0, a.symlink);
	assert_int_equal(file_set_mtime_fd(to, 1700000000123456789), 0);
	assert_int_equal(file_stat_fd(to, &st), 0);
	assert_true(
		st.mtime_ns == 1700000000123456789 - 1700000000123456789 % a.time_granularity_ns);
	for (int i = 0; i < 3000 && a.exact_times; i++) {
		int64_t last_ns = st.ctime_ns;

		assert_int_equal(file_write(to, "x", 1, 0), 0);
		assert_int_equal(file_stat_fd(to, &st), 0);
		assert_true(st.ctime_ns > last_ns);
	}
	close(from);
	close(to);
}

static void test_probe_where_nothing_works(void **state)
{
	int dir = dir_of(state), fd;
	struct file_abilities a = {.exchange = true};

	assert_int_equal(file_mkdir(dir, "gone", 0755), 0);
	assert_int_equal(file_open_directory_at(dir, "gone", &fd), 0);
	assert_int_equal(file_rmdir(dir, "gone"), 0);
	assert_int_equal(file_probe(fd, &a), FILE_VANISHED);
	assert_true(a.exchange);
	close(fd);
}

static void test_error_text(void **state)
{
	(void)state;
	for (int r = 0; r <= FILE_END; r++) {
		assert_non_null(file_error_text(r));
		for (int other = 0; other < r; other++)
			assert_string_not_equal(file_error_text(r), file_error_text(other));
	}
	assert_string_equal(file_error_text(-ENOSPC), "No space left on device");
	assert_string_equal(file_error_text(FILE_END + 1), "unknown outcome");
	assert_string_equal(file_error_text(INT32_MAX), "unknown outcome");
	assert_string_equal(file_error_text(-4000), "unknown error");
	assert_string_equal(file_error_text(INT32_MIN), "unknown error");
}

/* --- the group --- */

static unsigned open_descriptors(void)
{
	DIR *d = opendir("/proc/self/fd");
	unsigned n = 0;

	if (!d)
		return 0;
	while (readdir(d))
		n++;
	closedir(d);
	return n;
}

#define test(name) cmocka_unit_test_setup_teardown(test_##name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		test(names_are_one_component),
		test(paths_are_canonical),
		test(open_directory),
		test(open_directory_at),
		test(open_parent),
		test(deepest_path),
		test(mounts_are_outside),
		test(mounted_as),
		test(full_and_read_only_disks),
		test(open_read_only_regular),
		test(fifo_writer_is_not_woken),
		test(denied),
		test(create),
		test(stat),
		test(mtime),
		test(mtime_saturates),
		test(readlink),
		test(identity),
		test(hints),
		test(list),
		test(list_removed_directory),
		test(list_something_else),
		test(read_and_write),
		test(short_write_goes_on),
		test(uncached_leaves_memory_to_others),
		test(next_data),
		test(next_data_without_holes),
		test(copy_keeps_holes),
		test(copy_edges),
		test(copy_equals_model),
		test(copy_across_file_systems),
		test(clone),
		test(remove),
		test(unlink_takes_the_symlink),
		test(rename),
		test(link_of_a_symlink),
		test(exchange),
		test(chmod_and_chown),
		test(sync),
		test(lease),
		test(lock),
		test(probe),
		test(probe_where_nothing_works),
		test(error_text),
	};
	unsigned before;
	int failed;

	umask(022);
	before = open_descriptors();
	failed = cmocka_run_group_tests_name("base/file", tests, NULL, NULL);
	if (!failed && open_descriptors() != before) {
		fprintf(stderr, "descriptors leaked: %u before, %u after\n", before,
			open_descriptors());
		return 1;
	}
	return failed;
}
