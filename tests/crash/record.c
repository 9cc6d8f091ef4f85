/*
 * tests/crash/record.c — a disk that remembers what was written to it, and when it was flushed.
 *
 *   record DIRECTORY IMAGE LOG
 *
 * Mounts a file system at DIRECTORY that holds one file, "disk", with the content of IMAGE, for a loop device to stand on:
 * what the device is given comes here in the order in which it was given. Each write and each flush is appended to LOG; IMAGE
 * is written as well. A flush of the device (and a write with FUA, which the kernel turns into a write and a flush) is an fsync
 * here. Runs in the foreground until DIRECTORY is unmounted.
 *
 * LOG: records of {u32 type: 1 write, 2 flush; u32 length; u64 offset} in the machine's order, each write followed by its data.
 *
 * Speaks to /dev/fuse itself. Not cached by the kernel (FOPEN_DIRECT_IO), so that a write is here when it is said to be done.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/fuse.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#define NAME "disk"
#define INO 2
#define WRITE_MAX (1U << 20)
#define BUFFER_BYTES (WRITE_MAX + 8192)

enum { LOG_WRITE = 1, LOG_FLUSH = 2 };

struct log_head {
	uint32_t type, length;
	uint64_t offset;
};

struct disk {
	int fuse, image, log;
	uint64_t size;
};

static void die(const char *what)
{
	fprintf(stderr, "record: %s: %s\n", what, strerror(errno));
	exit(1);
}

static void answer(struct disk *d, uint64_t unique, int error, const void *p, size_t n)
{
	struct fuse_out_header head = {.len = (uint32_t)(sizeof(head) + n), .error = -error, .unique = unique};
	struct iovec parts[] = {{&head, sizeof(head)}, {(void *)p, n}};

	/* ENOENT: whoever asked is gone. */
	if (writev(d->fuse, parts, n ? 2 : 1) < 0 && errno != ENOENT)
		die("/dev/fuse");
}

static void log_put(struct disk *d, uint32_t type, uint64_t offset, const void *p, size_t n)
{
	struct log_head head = {type, (uint32_t)n, offset};
	struct iovec parts[] = {{&head, sizeof(head)}, {(void *)p, n}};

	if (writev(d->log, parts, 2) != (ssize_t)(sizeof(head) + n))
		die("log");
}

static struct fuse_attr attributes(const struct disk *d, uint64_t ino)
{
	return (struct fuse_attr){
		.ino = ino,
		.size = ino == INO ? d->size : 0,
		.blocks = ino == INO ? d->size / 512 : 0,
		.mode = ino == INO ? S_IFREG | 0600 : S_IFDIR | 0700,
		.nlink = 1,
		.blksize = 4096,
	};
}

/* --- the calls --- */

static void do_init(struct disk *d, const struct fuse_in_header *h, const void *in)
{
	const struct fuse_init_in *i = in;
	struct fuse_init_out o = {
		.major = FUSE_KERNEL_VERSION,
		.minor = i->minor < FUSE_KERNEL_MINOR_VERSION ? i->minor : FUSE_KERNEL_MINOR_VERSION,
		.max_readahead = 0,
		.flags = FUSE_BIG_WRITES | FUSE_MAX_PAGES,
		.max_background = 64,
		.congestion_threshold = 48,
		.max_write = WRITE_MAX,
		.max_pages = WRITE_MAX / 4096,
		.time_gran = 1,
	};

	answer(d, h->unique, 0, &o, sizeof(o));
}

static void do_lookup(struct disk *d, const struct fuse_in_header *h, const void *in)
{
	struct fuse_entry_out o = {.nodeid = INO, .entry_valid = 3600, .attr_valid = 3600, .attr = attributes(d, INO)};

	if (h->nodeid == FUSE_ROOT_ID && strcmp(in, NAME) == 0)
		answer(d, h->unique, 0, &o, sizeof(o));
	else
		answer(d, h->unique, ENOENT, NULL, 0);
}

static void do_getattr(struct disk *d, const struct fuse_in_header *h, const void *in)
{
	struct fuse_attr_out o = {.attr_valid = 3600, .attr = attributes(d, h->nodeid)};

	(void)in;
	answer(d, h->unique, 0, &o, sizeof(o));
}

static void do_open(struct disk *d, const struct fuse_in_header *h, const void *in)
{
	struct fuse_open_out o = {.open_flags = h->nodeid == INO ? FOPEN_DIRECT_IO : 0};

	(void)in;
	answer(d, h->unique, 0, &o, sizeof(o));
}

static void do_read(struct disk *d, const struct fuse_in_header *h, const void *in)
{
	static char data[WRITE_MAX];
	const struct fuse_read_in *i = in;
	ssize_t n = i->size > sizeof(data) ? -1 : pread(d->image, data, i->size, (off_t)i->offset);

	answer(d, h->unique, n < 0 ? EIO : 0, data, n < 0 ? 0 : (size_t)n);
}

static void do_write(struct disk *d, const struct fuse_in_header *h, const void *in)
{
	const struct fuse_write_in *i = in;
	struct fuse_write_out o = {.size = i->size};

	if (pwrite(d->image, i + 1, i->size, (off_t)i->offset) != (ssize_t)i->size)
		die("image");
	log_put(d, LOG_WRITE, i->offset, i + 1, i->size);
	answer(d, h->unique, 0, &o, sizeof(o));
}

static void do_fsync(struct disk *d, const struct fuse_in_header *h, const void *in)
{
	(void)in;
	log_put(d, LOG_FLUSH, 0, NULL, 0);
	answer(d, h->unique, 0, NULL, 0);
}

static void do_statfs(struct disk *d, const struct fuse_in_header *h, const void *in)
{
	struct fuse_statfs_out o = {.st = {.bsize = 4096, .namelen = 255, .frsize = 4096}};

	(void)in;
	answer(d, h->unique, 0, &o, sizeof(o));
}

static void do_nothing(struct disk *d, const struct fuse_in_header *h, const void *in)
{
	(void)in;
	answer(d, h->unique, 0, NULL, 0);
}

static void (*const calls[])(struct disk *d, const struct fuse_in_header *h, const void *in) = {
	[FUSE_INIT] = do_init,
	[FUSE_LOOKUP] = do_lookup,
	[FUSE_GETATTR] = do_getattr,
	[FUSE_SETATTR] = do_getattr,
	[FUSE_OPEN] = do_open,
	[FUSE_READ] = do_read,
	[FUSE_WRITE] = do_write,
	[FUSE_FSYNC] = do_fsync,
	[FUSE_STATFS] = do_statfs,
	[FUSE_FLUSH] = do_nothing,
	[FUSE_RELEASE] = do_nothing,
	[FUSE_DESTROY] = do_nothing,
};

static bool serve(struct disk *d, char *buffer)
{
	const struct fuse_in_header *h = (const struct fuse_in_header *)buffer;
	ssize_t n = read(d->fuse, buffer, BUFFER_BYTES);

	if (n < 0 && (errno == EINTR || errno == EAGAIN || errno == ENOENT))
		return true;
	if (n < 0 && errno == ENODEV)
		return false; /* unmounted */
	if (n < (ssize_t)sizeof(*h))
		die("/dev/fuse");
	if (h->opcode == FUSE_FORGET || h->opcode == FUSE_BATCH_FORGET || h->opcode == FUSE_INTERRUPT)
		return true;
	if (h->opcode < sizeof(calls) / sizeof(calls[0]) && calls[h->opcode])
		calls[h->opcode](d, h, h + 1);
	else
		answer(d, h->unique, ENOSYS, NULL, 0);
	return true;
}

int main(int argc, char **argv)
{
	struct disk d;
	struct stat st;
	char options[128], *buffer = malloc(BUFFER_BYTES);

	if (argc != 4 || !buffer)
		return 2;
	d.image = open(argv[2], O_RDWR | O_CLOEXEC);
	if (d.image < 0 || fstat(d.image, &st) < 0)
		die(argv[2]);
	d.size = (uint64_t)st.st_size;
	d.log = open(argv[3], O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC, 0600);
	if (d.log < 0)
		die(argv[3]);
	d.fuse = open("/dev/fuse", O_RDWR | O_CLOEXEC);
	if (d.fuse < 0)
		die("/dev/fuse");
	snprintf(options, sizeof(options), "fd=%d,rootmode=40700,user_id=0,group_id=0", d.fuse);
	if (mount("record", argv[1], "fuse.record", MS_NOSUID | MS_NODEV, options) < 0)
		die("mount");
	while (serve(&d, buffer))
		;
	free(buffer);
	return 0;
}
