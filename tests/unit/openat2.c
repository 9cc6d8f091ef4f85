/*
 * tests/unit/openat2.c — openat2(2) in user space, preloaded where a test runs under valgrind, which may not know the call and
 * then fails it as unimplemented (before 3.22 or so; Debian 12 has 3.19). `make valgrind` only: it walks component by
 * component, so that what a hostile user changes meanwhile is judged by other tests.
 *
 * It knows what base/file.c asks for: beneath, no links, no mounts.
 */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdarg.h>
#include <stdbool.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Refuse what is no longer beneath: another mount than the directory's, a link that would be followed. */
static int check(int dir, int fd, bool links)
{
	struct statx a, b;

	if (statx(dir, "", AT_EMPTY_PATH, STATX_MNT_ID, &a) < 0 || statx(fd, "", AT_EMPTY_PATH, STATX_TYPE | STATX_MNT_ID, &b) < 0)
		return -errno;
	if (S_ISLNK(b.stx_mode) && !links)
		return -ELOOP;
	return a.stx_mnt_id == b.stx_mnt_id ? 0 : -EXDEV;
}

/* Look at one component; *at moves on to it, if it is not the last. */
static int step(int dir, int *at, const char *name, bool last, const struct open_how *how)
{
	bool links = last && ((how->flags & O_EXCL) || ((how->flags & O_PATH) && (how->flags & O_NOFOLLOW)));
	int fd = openat(*at, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
	int r = fd < 0 ? -errno : check(*at, fd, links);

	if (r == 0 && !last) {
		if (*at != dir)
			close(*at);
		*at = fd;
		return 0;
	}
	if (fd >= 0)
		close(fd);
	return r;
}

static int open_beneath(int dir, const char *path, const struct open_how *how)
{
	char name[256];
	int at = dir, fd = -1, r = *path == '/' ? -EXDEV : *path ? 0 : -ENOENT;

	while (r == 0) {
		size_t n = strcspn(path, "/");
		bool last = !path[n];

		if (n >= sizeof(name)) {
			r = -ENAMETOOLONG;
			break;
		}
		memcpy(name, path, n);
		name[n] = 0;
		r = strcmp(name, "..") == 0 ? -EXDEV : step(dir, &at, name, last, how);
		if (r == -ENOENT && last && (how->flags & O_CREAT))
			r = 0;
		if (last)
			break;
		path += n + 1;
	}
	if (r == 0) {
		fd = openat(at, name, (int)how->flags | O_NOFOLLOW, (mode_t)how->mode);
		r = fd < 0 ? -errno : fd;
	}
	if (at != dir)
		close(at);
	return r;
}

long syscall(long number, ...)
{
	long (*real)(long, ...) = (long (*)(long, ...))dlsym(RTLD_NEXT, "syscall");
	long a[6];
	va_list args;

	va_start(args, number);
	for (size_t i = 0; i < sizeof(a) / sizeof(a[0]); i++)
		a[i] = va_arg(args, long);
	va_end(args);
	if (number != SYS_openat2)
		return real(number, a[0], a[1], a[2], a[3], a[4], a[5]);
	a[0] = open_beneath((int)a[0], (const char *)a[1], (const struct open_how *)a[2]);
	if (a[0] >= 0)
		return a[0];
	errno = (int)-a[0];
	return -1;
}
