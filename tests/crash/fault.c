/*
 * tests/crash/fault.c — preloaded into the real programs: calls of the file system, or allocations, that fail at a place of the
 * program's that is told.
 *
 *   FAULT_CONTROL=FILE   a struct control, mapped by all processes: what is to fail, and how often
 *   FAULT_LOG=FILE       each place of a process is appended once: the call, then where it comes from, inside out
 *
 *   FAULT_DEPTH=N        how many functions make a place (3)
 *
 * A place is a call together with the program's functions that led to it (up to so many; of a library the innermost
 * one, too), as offsets in their files. What the C library does for itself is not seen, nor are sockets and pipes.
 */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <link.h>
#include <linux/openat2.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/vfs.h>
#include <unistd.h>
#include <unwind.h>

#define KNOWN (1U << 14)

enum { CALLS = 1, ALLOCATIONS = 2 };

struct control {
	uint64_t place;		   /* this one; 0: any place of `name` (all of its bytes 0: none) */
	int32_t error;
	uint32_t what;		   /* CALLS, ALLOCATIONS */
	_Atomic int32_t skip, left; /* how often not, and then how often */
	_Atomic uint32_t hits;
	uint32_t low; /* the last 12 bits of the place's innermost address, as no other one needs a closer look */
	char name[28];
};

static struct control *control;
static int log_fd = -1;
static unsigned depth = 3;
static uintptr_t program_from, program_to, program_base;
static _Atomic uint64_t known[KNOWN];
static __thread bool inside;

/* --- places --- */

struct place {
	uint64_t hash;
	char text[512];
	size_t len;
	unsigned n;
	bool first;
};

static int find_program(struct dl_phdr_info *info, size_t size, void *data)
{
	(void)size;
	(void)data;
	program_base = info->dlpi_addr;
	for (int i = 0; i < info->dlpi_phnum; i++) {
		const ElfW(Phdr) *p = &info->dlpi_phdr[i];

		if (p->p_type == PT_LOAD && (p->p_flags & PF_X)) {
			program_from = program_base + p->p_vaddr;
			program_to = program_from + p->p_memsz;
		}
	}
	return 1; /* the program is the first */
}

static void add_frame(struct place *p, const char *file, uintptr_t offset)
{
	const char *slash = strrchr(file, '/');
	int n = snprintf(p->text + p->len, sizeof(p->text) - p->len, " %s+%lx", slash ? slash + 1 : file, (unsigned long)offset);

	if (n > 0 && p->len + (size_t)n < sizeof(p->text))
		p->len += (size_t)n;
}

static _Unwind_Reason_Code on_frame(struct _Unwind_Context *context, void *data)
{
	struct place *p = data;
	uintptr_t ip = _Unwind_GetIP(context);
	static const char here;
	Dl_info info, own;

	if (ip >= program_from && ip < program_to) {
		add_frame(p, "program", ip - program_base);
		p->first = false;
		return ++p->n < depth ? _URC_NO_REASON : _URC_END_OF_STACK;
	}
	if (p->first && dladdr((void *)ip, &info) && info.dli_fname && dladdr(&here, &own) && own.dli_fbase != info.dli_fbase) {
		add_frame(p, info.dli_fname, ip - (uintptr_t)info.dli_fbase);
		p->first = false;
	}
	return _URC_NO_REASON;
}

static uint64_t hash(const char *text)
{
	uint64_t h = 14695981039346656037U;

	for (; *text; text++)
		h = (h ^ (uint8_t)*text) * 1099511628211U;
	return h ? h : 1;
}

static void note(const struct place *p)
{
	size_t at = p->hash % KNOWN;
	uint64_t there;
	char line[600];
	int n;

	for (; (there = atomic_load(&known[at])) != p->hash; at = (at + 1) % KNOWN) {
		if (there)
			continue;
		if (!atomic_compare_exchange_strong(&known[at], &there, p->hash))
			continue;
		n = snprintf(line, sizeof(line), "%016lx %s\n", (unsigned long)p->hash, p->text);
		if (n > 0)
			syscall(SYS_write, log_fd, line, (size_t)n < sizeof(line) ? (size_t)n : sizeof(line) - 1);
		return;
	}
}

__attribute__((constructor)) static void begin(void)
{
	const char *path = getenv("FAULT_CONTROL"), *log = getenv("FAULT_LOG"), *deep = getenv("FAULT_DEPTH");
	int fd = path ? (int)syscall(SYS_open, path, O_RDWR | O_CLOEXEC) : -1;
	void *map = fd < 0 ? MAP_FAILED : (void *)syscall(SYS_mmap, NULL, sizeof(*control), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

	if (map == MAP_FAILED)
		return;
	syscall(SYS_close, fd);
	if (log) {
		fd = (int)syscall(SYS_open, log, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
		log_fd = (int)syscall(SYS_fcntl, fd, F_DUPFD_CLOEXEC, 900);
		syscall(SYS_close, fd);
	}
	if (deep)
		depth = (unsigned)strtoul(deep, NULL, 10);
	dl_iterate_phdr(find_program, NULL);
	control = map;
}

#define fails(what, name) fails_at(what, name, (uintptr_t)__builtin_return_address(0))

/* Is this call to fail? Then errno is set. */
static bool fails_at(uint32_t what, const char *name, uintptr_t caller)
{
	struct place p = {.first = true};
	bool hit;
	int saved = errno;

	if (!control || inside || control->what != what)
		return false;
	if (log_fd < 0 && (atomic_load(&control->left) <= 0 || strcmp(control->name, name) != 0))
		return false;
	if (log_fd < 0 && control->place && (caller & 0xfff) != control->low)
		return false;
	hit = control->place == 0;
	if (!hit || log_fd >= 0) {
		inside = true;
		p.len = (size_t)snprintf(p.text, sizeof(p.text), "%s", name);
		_Unwind_Backtrace(on_frame, &p);
		p.hash = hash(p.text);
		if (log_fd >= 0)
			note(&p);
		hit = control->place ? control->place == p.hash : strcmp(control->name, name) == 0;
		inside = false;
	}
	errno = saved;
	if (!hit)
		return false;
	if (atomic_fetch_sub(&control->skip, 1) > 0)
		return false;
	atomic_store(&control->skip, 0);
	if (atomic_fetch_sub(&control->left, 1) <= 0)
		return false;
	atomic_fetch_add(&control->hits, 1);
	errno = control->error;
	return true;
}

/* --- calls --- */

#define REAL(name) ({ \
	static __typeof__(name) *real_; \
	if (!real_) \
		real_ = (__typeof__(name) *)dlsym(RTLD_NEXT, #name); \
	real_; })

#define CALL(type, name, parameters, arguments) \
	type name parameters; \
	type name parameters \
	{ \
		return fails(CALLS, #name) ? (type)-1 : REAL(name) arguments; \
	}

static bool is_file(int fd)
{
	struct stat st;

	return syscall(SYS_fstat, fd, &st) == 0 && S_ISREG(st.st_mode);
}

/* Only what concerns a file. */
#define FILE_CALL(type, name, parameters, arguments) \
	type name parameters; \
	type name parameters \
	{ \
		return is_file(fd) && fails(CALLS, #name) ? (type)-1 : REAL(name) arguments; \
	}

CALL(int, statx, (int dir, const char *path, int flags, unsigned mask, struct statx *buf), (dir, path, flags, mask, buf))
CALL(ssize_t, readlinkat, (int dir, const char *path, char *buf, size_t n), (dir, path, buf, n))
CALL(ssize_t, getdents64, (int fd, void *buf, size_t n), (fd, buf, n))
CALL(int, fstatfs, (int fd, struct statfs *buf), (fd, buf))
CALL(int, fstatfs64, (int fd, struct statfs64 *buf), (fd, buf))
CALL(int, fstatvfs64, (int fd, struct statvfs64 *buf), (fd, buf))
CALL(int, stat64, (const char *path, struct stat64 *buf), (path, buf))
CALL(int, lstat64, (const char *path, struct stat64 *buf), (path, buf))
CALL(ssize_t, pread, (int fd, void *buf, size_t n, off_t at), (fd, buf, n, at))
CALL(ssize_t, pread64, (int fd, void *buf, size_t n, off64_t at), (fd, buf, n, at))
CALL(ssize_t, pwrite, (int fd, const void *buf, size_t n, off_t at), (fd, buf, n, at))
CALL(ssize_t, preadv64v2, (int fd, const struct iovec *v, int n, off64_t at, int flags), (fd, v, n, at, flags))
CALL(ssize_t, pwritev64v2, (int fd, const struct iovec *v, int n, off64_t at, int flags), (fd, v, n, at, flags))
CALL(ssize_t, pwrite64, (int fd, const void *buf, size_t n, off64_t at), (fd, buf, n, at))
FILE_CALL(ssize_t, read, (int fd, void *buf, size_t n), (fd, buf, n))
FILE_CALL(ssize_t, write, (int fd, const void *buf, size_t n), (fd, buf, n))
FILE_CALL(ssize_t, writev, (int fd, const struct iovec *v, int n), (fd, v, n))
CALL(int, ftruncate, (int fd, off_t n), (fd, n))
CALL(int, ftruncate64, (int fd, off64_t n), (fd, n))
CALL(off64_t, lseek64, (int fd, off64_t at, int whence), (fd, at, whence))
CALL(ssize_t, copy_file_range, (int in, off64_t *at, int out, off64_t *to, size_t n, unsigned flags), (in, at, out, to, n, flags))
CALL(int, fallocate64, (int fd, int mode, off64_t at, off64_t n), (fd, mode, at, n))
CALL(int, mkdirat, (int dir, const char *path, mode_t mode), (dir, path, mode))
CALL(int, mkdir, (const char *path, mode_t mode), (path, mode))
CALL(int, symlinkat, (const char *target, int dir, const char *path), (target, dir, path))
CALL(int, linkat, (int from, const char *path, int to, const char *name, int flags), (from, path, to, name, flags))
CALL(int, unlinkat, (int dir, const char *path, int flags), (dir, path, flags))
CALL(int, unlink, (const char *path), (path))
CALL(int, renameat2, (int from, const char *path, int to, const char *name, unsigned flags), (from, path, to, name, flags))
CALL(int, fchmod, (int fd, mode_t mode), (fd, mode))
CALL(int, fchown, (int fd, uid_t uid, gid_t gid), (fd, uid, gid))
CALL(int, fchownat, (int dir, const char *path, uid_t uid, gid_t gid, int flags), (dir, path, uid, gid, flags))
CALL(int, futimens, (int fd, const struct timespec t[2]), (fd, t))
CALL(int, utimensat, (int dir, const char *path, const struct timespec t[2], int flags), (dir, path, t, flags))
CALL(int, fsync, (int fd), (fd))
CALL(int, fdatasync, (int fd), (fd))
CALL(int, syncfs, (int fd), (fd))
CALL(int, sync_file_range, (int fd, off64_t at, off64_t n, unsigned flags), (fd, at, n, flags))
CALL(int, flock, (int fd, int how), (fd, how))
CALL(int, dup, (int fd), (fd))
CALL(int, inotify_init1, (int flags), (flags))
CALL(int, inotify_add_watch, (int fd, const char *path, uint32_t mask), (fd, path, mask))

#define MODE_OF(flags) ({ \
	mode_t mode_ = 0; \
	if ((flags) & (O_CREAT | O_TMPFILE)) { \
		va_list args_; \
		va_start(args_, flags); \
		mode_ = va_arg(args_, mode_t); \
		va_end(args_); \
	} \
	mode_; })

int open(const char *path, int flags, ...);
int open(const char *path, int flags, ...)
{
	mode_t mode = MODE_OF(flags);

	return fails(CALLS, "open") ? -1 : REAL(open)(path, flags, mode);
}

int open64(const char *path, int flags, ...);
int open64(const char *path, int flags, ...)
{
	mode_t mode = MODE_OF(flags);

	return fails(CALLS, "open64") ? -1 : REAL(open64)(path, flags, mode);
}

void *mmap(void *at, size_t n, int prot, int flags, int fd, off_t offset)
{
	return fd >= 0 && fails(CALLS, "mmap") ? MAP_FAILED : REAL(mmap)(at, n, prot, flags, fd, offset);
}

#define ARGUMENT(after) ({ \
	va_list args_; \
	void *p_; \
	va_start(args_, after); \
	p_ = va_arg(args_, void *); \
	va_end(args_); \
	p_; })

int ioctl(int fd, unsigned long request, ...);
int ioctl(int fd, unsigned long request, ...)
{
	void *p = ARGUMENT(request);

	return fails(CALLS, "ioctl") ? -1 : REAL(ioctl)(fd, request, p);
}

/* Leases of ours and locks of LMDB; the flags of descriptors do not fail. */
static bool may_fail(int command)
{
	return command == F_SETLEASE || command == F_GETLEASE || command == F_SETSIG || command == F_SETLK || command == F_SETLKW;
}

int fcntl(int fd, int command, ...);
int fcntl(int fd, int command, ...)
{
	void *p = ARGUMENT(command);

	return may_fail(command) && fails(CALLS, "fcntl") ? -1 : REAL(fcntl)(fd, command, p);
}

int fcntl64(int fd, int command, ...);
int fcntl64(int fd, int command, ...)
{
	void *p = ARGUMENT(command);

	return may_fail(command) && fails(CALLS, "fcntl64") ? -1 : REAL(fcntl64)(fd, command, p);
}

long syscall(long number, ...)
{
	long a[6];
	va_list args;

	va_start(args, number);
	for (int i = 0; i < 6; i++)
		a[i] = va_arg(args, long);
	va_end(args);
	if (number == SYS_openat2) {
		const struct open_how *how = (const void *)a[2];

		if (fails(CALLS, how->flags & O_CREAT ? "openat2(O_CREAT)" : "openat2"))
			return -1;
	}
	return REAL(syscall)(number, a[0], a[1], a[2], a[3], a[4], a[5]);
}

/* --- allocations --- */

void *__libc_malloc(size_t n);
void *__libc_calloc(size_t n, size_t each);
void *__libc_realloc(void *p, size_t n);

void *malloc(size_t n)
{
	return fails(ALLOCATIONS, "malloc") ? NULL : __libc_malloc(n);
}

void *calloc(size_t n, size_t each)
{
	return fails(ALLOCATIONS, "calloc") ? NULL : __libc_calloc(n, each);
}

void *realloc(void *p, size_t n)
{
	return fails(ALLOCATIONS, "realloc") ? NULL : __libc_realloc(p, n);
}
