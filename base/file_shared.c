/*
 * base/file_shared.c — what the real and the simulated version of base/file have in common; see base/file_internal.h.
 */
#include "base/file_internal.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/random.h"

#define EXACT_CHANGES 16

/* --- outcomes --- */

static const char *const outcome_words[] = {
	[0] = "done",
	[FILE_VANISHED] = "it is not there, or not any more",
	[FILE_EXISTS] = "something of that name exists",
	[FILE_NOT_EMPTY] = "the directory is not empty",
	[FILE_IS_DIRECTORY] = "it is a directory",
	[FILE_DENIED] = "permission denied",
	[FILE_OUTSIDE] = "a symlink or a mount point is in the way",
	[FILE_UNSUPPORTED] = "not supported by this file system or for this kind of file",
	[FILE_BUSY] = "in use by another program",
	[FILE_END] = "at the end",
};

const char *file_error_text(int r)
{
	const char *text = NULL;

	if (r >= 0)
		return (size_t)r < ARRAY_SIZE(outcome_words) ? outcome_words[r] : "unknown outcome";
	if (r > -4096)
		text = strerrordesc_np(-r);
	return text ? text : "unknown error";
}

int file_outcome(int error)
{
	switch (error) {
	case ENOENT:
	case ENOTDIR:
		return FILE_VANISHED;
	case EEXIST:
		return FILE_EXISTS;
	case ENOTEMPTY:
		return FILE_NOT_EMPTY;
	case EISDIR:
		return FILE_IS_DIRECTORY;
	case EACCES:
	case EPERM:
		return FILE_DENIED;
	case ELOOP:
	case EXDEV:
		return FILE_OUTSIDE;
	case EOPNOTSUPP:
	case ENOTTY:
	case ENOSYS:
	case EINVAL: /* a flag, an ioctl or a name that this file system does not take */
	case EILSEQ:
		return FILE_UNSUPPORTED;
	case EBUSY:
	case ETXTBSY:
		return FILE_BUSY;
	default:
		return -error;
	}
}

/* --- names and paths --- */

/* 0 if the n bytes may stand as one component. */
static int check_component(const char *name, size_t n)
{
	if (n == 0 || memchr(name, '/', n) || (n == 1 && name[0] == '.') ||
		(n == 2 && name[0] == '.' && name[1] == '.'))
		return -EINVAL;
	return n > FILE_NAME_BYTES_MAX ? -ENAMETOOLONG : 0;
}

int file_check_name(const char *name)
{
	return check_component(name, strlen(name));
}

int file_check_names(const char *name1, const char *name2)
{
	int r = file_check_name(name1);

	return r ? r : file_check_name(name2);
}

int file_check_path(const char *path)
{
	size_t depth = 0;

	if (strnlen(path, FILE_PATH_BYTES_MAX + 1) > FILE_PATH_BYTES_MAX)
		return -ENAMETOOLONG;
	for (const char *at = path;;) {
		size_t n = strcspn(at, "/");
		int r = check_component(at, n);

		if (r < 0)
			return r;
		if (++depth > FILE_DEPTH_MAX)
			return -ENAMETOOLONG;
		if (!at[n])
			return 0;
		at += n + 1;
	}
}

/* --- abilities --- */

/* Whether it worked; what is no answer (the disk is full or failing) is passed on. */
static int answer(int r, bool *ret)
{
	*ret = r == 0;
	return r < 0 ? r : 0;
}

static int make_file(int dir, const char *name)
{
	cleanup_close int fd = -1;

	return file_create(dir, name, 0600, &fd);
}

static int probe_renames(int dir, struct file_abilities *a)
{
	struct file_stat before, after;
	int r;

	r = make_file(dir, "x");
	if (r == 0)
		r = make_file(dir, "y");
	if (r == 0)
		r = file_stat_at(dir, "x", &before);
	if (r)
		return r;
	r = answer(file_exchange(dir, "x", dir, "y"), &a->exchange);
	if (r == 0 && a->exchange) {
		r = file_stat_at(dir, "y", &after);
		a->exchange = r == 0 && after.ino == before.ino;
	}
	if (r)
		return r;
	/* An occupied name may be refused by the kernel's common part, a free one is seen by the
	 * file system: both must answer. */
	r = file_rename_noreplace(dir, "x", dir, "y");
	a->no_replace = r == FILE_EXISTS;
	if (r < 0 || !a->no_replace)
		return r < 0 ? r : 0;
	return answer(file_rename_noreplace(dir, "x", dir, "z"), &a->no_replace);
}

static int probe_reflink_and_lease(int dir, struct file_abilities *a)
{
	static const char block[4096] = "x";
	cleanup_close int from = -1, to = -1, reading = -1;
	int r;

	r = file_create(dir, "from", 0600, &from);
	if (r == 0)
		r = file_create(dir, "to", 0600, &to);
	if (r == 0)
		r = file_write(from, block, sizeof(block), 0);
	if (r == 0)
		r = answer(file_clone(from, to), &a->reflink);
	if (r)
		return r;
	from = close_keep(from);
	r = file_open_read(dir, "from", &reading);
	if (r == 0)
		r = answer(file_lease_read(reading), &a->lease);
	if (r == 0 && a->lease)
		file_lease_release(reading);
	return r;
}

/* Whether a file made under one name is found under another. */
static int probe_same_name(int dir, const char *made, const char *asked, bool *ret)
{
	struct file_stat st;
	int r;

	r = make_file(dir, made);
	if (r == FILE_UNSUPPORTED) {
		*ret = false;
		return 0;
	}
	return r ? r : answer(file_stat_at(dir, asked, &st), ret);
}

static int probe_names(int dir, struct file_abilities *a)
{
	int r = file_symlink("target", dir, "symlink");

	if (r == FILE_DENIED) /* in a directory of ours: by what need not last, or not be so elsewhere. Who needs one is told. */
		r = 0;
	r = answer(r, &a->symlink);
	if (r == 0)
		r = probe_same_name(dir, "case", "CASE", &a->fold_case);
	if (r == 0) /* é, composed and decomposed */
		r = probe_same_name(dir, "\xc3\xa9", "e\xcc\x81", &a->fold_unicode);
	return r;
}

static int probe_times(int dir, struct file_abilities *a)
{
	static const int64_t steps[] = {1, 100, 1000, 1000000, 10000000, CLOCK_NS_PER_S, 2 * CLOCK_NS_PER_S};
	const int64_t set = 1500000001 * CLOCK_NS_PER_S + 123456789; /* odd in every digit that counts */
	cleanup_close int fd = -1;
	struct file_stat st;
	int r;

	r = file_create(dir, "times", 0600, &fd);
	if (r == 0)
		r = file_set_mtime_fd(fd, set);
	if (r == 0)
		r = file_stat_at(dir, "times", &st);
	if (r)
		return r;
	a->time_granularity_ns = steps[ARRAY_SIZE(steps) - 1];
	for (size_t i = ARRAY_SIZE(steps); i-- > 0;)
		if (st.mtime_ns == set - set % steps[i])
			a->time_granularity_ns = steps[i];
	return 0;
}

/* Others than file_maybe_multigrain means show as many times as their clock ticked meanwhile: a thousand times a second, at most. */
static int probe_exact_times(int dir, struct file_abilities *a)
{
	cleanup_close int fd = -1;
	struct file_stat st = {0};
	int r = 0;

	if (!file_maybe_multigrain(dir))
		return 0;
	r = file_open_write(dir, "times", &fd);
	for (int tries = 0; r == 0 && tries < 3 && !a->exact_times; tries++) {
		int64_t from_ns = clock_monotonic_ns(), last_ns = 0;

		for (int i = 0; r == 0 && i < EXACT_CHANGES; i++) {
			r = file_write(fd, "x", 1, 0);
			if (r == 0)
				r = file_stat_fd(fd, &st);
			if (r == 0 && st.ctime_ns == last_ns)
				return 0;
			last_ns = st.ctime_ns;
		}
		a->exact_times = r == 0 && clock_monotonic_ns() - from_ns < EXACT_CHANGES / 2 * CLOCK_NS_PER_MS; /* else: too slow to tell */
	}
	return r;
}

int file_probe_remove(int dir, const char *name)
{
	static const char *const names[] = {
		"x", "y", "z", "from", "to", "symlink", "case", "\xc3\xa9", "times"};
	cleanup_close int scratch = -1;

	if (file_open_directory_at(dir, name, &scratch) == 0)
		for (size_t i = 0; i < ARRAY_SIZE(names); i++)
			file_unlink(scratch, names[i]);
	return file_rmdir(dir, name);
}

int file_probe(int dir, struct file_abilities *ret)
{
	char name[sizeof(FILE_PROBE_PREFIX) + 16];
	struct file_abilities found = {0};
	cleanup_close int scratch = -1;
	int r, cleaned;

	snprintf(name, sizeof(name), FILE_PROBE_PREFIX "%016llx", (unsigned long long)random_id());
	r = file_mkdir(dir, name, 0700);
	if (r)
		return r;
	r = file_open_directory_at(dir, name, &scratch);
	if (r == 0)
		r = probe_renames(scratch, &found);
	if (r == 0)
		r = probe_reflink_and_lease(scratch, &found);
	if (r == 0)
		r = probe_names(scratch, &found);
	if (r == 0)
		r = probe_times(scratch, &found);
	if (r == 0)
		r = probe_exact_times(scratch, &found);
	cleaned = file_probe_remove(dir, name);
	if (r == 0)
		r = cleaned;
	if (r == 0)
		*ret = found;
	return r;
}

/* --- a directory's names --- */

void file_names_deinit(struct file_names *names)
{
	for (size_t i = 0; i < names->n; i++)
		free(names->v[i]);
	free(names->v);
	*names = (struct file_names){0};
}

int file_names_read(int dir, struct file_names *ret)
{
	cleanup_file_dir struct file_dir *d = NULL;
	const char *name;
	int r = file_dir_open(dir, &d);

	while (r == 0 && (r = file_dir_next(d, &name)) == 0) {
		r = array_reserve(&ret->v, &ret->cap, ret->n + 1, sizeof(*ret->v));
		if (r == 0 && !(ret->v[ret->n] = strdup(name)))
			r = -ENOMEM;
		ret->n += r == 0;
	}
	return r == FILE_END ? 0 : r;
}
