/*
 * The simulated file system: it answers as the kernel does, keeps what was synced and not more than it may of the rest, and does
 * the same for the same seed. An index on it outlives any crash.
 */
#include "tests/sim/fs.h"

#include <errno.h>
#include <ftw.h>
#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/random.h"
#include "merkle/index.h"
#include "tests/unit/sim/fs_ops.h"
#include "tests/unit/where.h"

#define CRASHES 300

static int teardown(void **state)
{
	(void)state;
	assert_int_equal(sim_open_descriptors(), 0);
	sim_end();
	return 0;
}

/* A disk at "/a", and its root opened. */
static struct sim_disk *begin(const struct sim_disk_options *options, uint64_t seed, int *ret_root)
{
	struct sim_disk *d;

	sim_begin(seed);
	d = sim_disk_new(sim_host_new(), options);
	sim_mount(d, "/a");
	assert_int_equal(file_open_directory("/a", ret_root), 0);
	return d;
}

static void put(int dir, const char *name, const char *text, bool synced)
{
	int fd = -1;

	assert_int_equal(file_create(dir, name, 0644, &fd), 0);
	assert_int_equal(file_write(fd, text, strlen(text), 0), 0);
	if (synced)
		assert_int_equal(file_fsync(fd), 0);
	close_keep(fd);
}

/* A short file's text, NULL if there is none; static. */
static const char *text_of(struct sim_disk *d, const char *path)
{
	static char text[256];
	size_t n;

	if (sim_user_read(d, path, text, sizeof(text) - 1, &n))
		return NULL;
	text[n] = 0;
	return text;
}

static bool is(struct sim_disk *d, const char *path, const char *expected)
{
	const char *text = text_of(d, path);

	return expected ? text && strcmp(text, expected) == 0 : !text;
}

/* --- as the kernel does --- */

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	(void)st;
	(void)type;
	(void)ftw;
	return remove(path);
}

/* The kernel's clock may stand still where ours went on. */
static bool alike(const char *simulated, const char *real)
{
	for (; *simulated && *real; simulated++, real++)
		if (*simulated != *real && *real != '-')
			return false;
	return *simulated == *real;
}

static void print_first_difference(const char *simulated, const char *real)
{
	while (*simulated && *real) {
		char a[1000], b[1000];

		snprintf(a, sizeof(a), "%.*s", (int)strcspn(simulated, "\n"), simulated);
		snprintf(b, sizeof(b), "%.*s", (int)strcspn(real, "\n"), real);
		if (!alike(a, b)) {
			print_error("simulated %s\nreal      %s\n", a, b);
			return;
		}
		simulated += strcspn(simulated, "\n") + 1;
		real += strcspn(real, "\n") + 1;
	}
}

static void compare_with_kernel(const char *tmp, uint64_t seed)
{
	struct sim_disk_options options = sim_disk_usual;
	char dir[64], *simulated, *real;
	struct sim_host *h;
	struct sim_disk *d;

	snprintf(dir, sizeof(dir), "%s/fs-test.XXXXXX", tmp);
	assert_non_null(mkdtemp(dir));
	assert_int_equal(chmod(dir, 0755), 0);
	options.abilities.reflink = false;
	sim_begin(seed);
	h = sim_host_new();
	d = sim_disk_new(h, &options);
	sim_host_user(h, (uint32_t)syscall(SYS_geteuid), (uint32_t)syscall(SYS_getegid));
	assert_int_equal(sim_user_chown(d, "", (uint32_t)syscall(SYS_geteuid), (uint32_t)syscall(SYS_getegid)), 0);
	sim_mount(d, "/a");
	simulated = fs_ops_run("/a", seed, 100);
	real = real_fs_ops_run(dir, seed, 100);
	sim_disk_check(d);
	nftw(dir, remove_one, 16, FTW_DEPTH | FTW_PHYS);
	if (!alike(simulated, real)) {
		print_error("seed %" PRIu64 " in %s\n", seed, tmp);
		print_first_difference(simulated, real);
		fail();
	}
	free(simulated);
	free(real);
}

static void test_kernel(void **state)
{
	const char *tmp = getenv("SIM_FS_DIR"), *seed = getenv("SIM_FS_SEED");
	uint64_t from = seed ? strtoull(seed, NULL, 10) : 1;

	(void)state;
	umask(022);
	if (!tmp)
		tmp = where_memory();
	for (uint64_t i = 0; i < 300; i++)
		compare_with_kernel(tmp, from + i);
}

static void test_probe(void **state)
{
	struct sim_disk_options options = sim_disk_usual;
	const int64_t steps[] = {1, 100, 1000, 1000000, 10000000, CLOCK_NS_PER_S, 2 * CLOCK_NS_PER_S};
	struct file_abilities found;
	uint64_t stream = 3;
	int root;

	(void)state;
	for (unsigned i = 0; i < 40; i++) {
		struct file_abilities *a = &options.abilities;

		a->exchange = sim_one_in(&stream, 2);
		a->no_replace = sim_one_in(&stream, 2);
		a->reflink = sim_one_in(&stream, 2);
		a->lease = sim_one_in(&stream, 2);
		a->symlink = sim_one_in(&stream, 2);
		a->fold_case = sim_one_in(&stream, 2);
		a->fold_unicode = sim_one_in(&stream, 2);
		a->time_granularity_ns = steps[sim_below(&stream, ARRAY_SIZE(steps))];
		a->exact_times = a->time_granularity_ns == 1 && sim_one_in(&stream, 2);
		begin(&options, i, &root);
		assert_int_equal(file_probe(root, &found), 0);
		assert_true(found.exchange == a->exchange && found.no_replace == a->no_replace);
		assert_true(found.reflink == a->reflink && found.lease == a->lease && found.symlink == a->symlink);
		assert_true(found.fold_case == a->fold_case && found.fold_unicode == a->fold_unicode);
		assert_int_equal(found.time_granularity_ns, a->time_granularity_ns);
		assert_true(found.exact_times == a->exact_times);
		close_keep(root);
	}
}

static void test_names_fold(void **state)
{
	struct sim_disk_options options = sim_disk_usual;
	struct file_dir *list = NULL;
	const char *name;
	struct sim_disk *d;
	int root;

	(void)state;
	options.abilities.fold_case = options.abilities.fold_unicode = options.decomposes = true;
	d = begin(&options, 1, &root);
	put(root, "Caf\xc3\xa9", "x", false);
	assert_true(is(d, "cAFe\xcc\x81", "x"));
	assert_int_equal(file_mkdir(root, "CAF\xc3\xa9", 0700), FILE_EXISTS);
	assert_int_equal(file_dir_open(root, &list), 0);
	assert_int_equal(file_dir_next(list, &name), 0);
	assert_string_equal(name, "Cafe\xcc\x81");
	assert_int_equal(file_dir_next(list, &name), FILE_END);
	file_dir_close(list);
	close_keep(root);
}

static void test_rights(void **state)
{
	struct sim_disk *d;
	struct sim_host *h;
	int root, fd = -1;

	(void)state;
	sim_begin(1);
	h = sim_host_new();
	d = sim_disk_new(h, NULL);
	sim_mount(d, "/a");
	sim_host_user(h, 1000, 1000);
	assert_int_equal(file_open_directory("/a", &root), 0);
	assert_int_equal(file_mkdir(root, "x", 0700), FILE_DENIED);
	assert_int_equal(sim_user_write(d, "theirs", "x", 1), 0);
	assert_int_equal(sim_user_chmod(d, "theirs", 0600), 0);
	assert_int_equal(file_open_read(root, "theirs", &fd), FILE_DENIED);
	assert_int_equal(sim_user_chown(d, "", 1000, 1000), 0);
	put(root, "ours", "x", false);
	assert_int_equal(file_open_read(root, "ours", &fd), 0);
	assert_int_equal(file_chown_fd(fd, 0, 0), FILE_DENIED);
	assert_int_equal(file_lease_read(fd), 0);
	close_keep(fd);
	assert_int_equal(sim_user_chmod(d, "", 0), 0);
	assert_int_equal(file_open_read(root, "ours", &fd), FILE_DENIED);
	close_keep(root);
}

/* --- crashes --- */

static struct sim_disk_options ordered(enum sim_order order)
{
	struct sim_disk_options options = sim_disk_usual;

	options.order = order;
	return options;
}

static void test_synced_survives(void **state)
{
	(void)state;
	for (unsigned i = 0, seen = 0; i < CRASHES; i++) {
		struct sim_disk_options options = ordered((enum sim_order)(i % 3));
		uint64_t stream = i;
		int root, dir;
		struct sim_disk *d = begin(&options, i, &root);

		assert_int_equal(file_mkdir(root, "d", 0755), 0);
		assert_int_equal(file_fsync(root), 0);
		assert_int_equal(file_open_directory_at(root, "d", &dir), 0);
		put(dir, "kept", "synced", true);
		assert_int_equal(file_fsync(dir), 0);
		put(dir, "perhaps", "not synced", false);
		assert_int_equal(file_rename_replace(dir, "kept", root, "elsewhere"), 0);
		close_keep(dir);
		close_keep(root);
		sim_disk_crash(d, &stream);
		sim_disk_check(d);
		assert_true(is(d, "d/kept", "synced") || is(d, "elsewhere", "synced"));
		if (options.order != SIM_SPLIT)
			assert_true(is(d, "d/kept", NULL) || is(d, "elsewhere", NULL));
		seen |= is(d, "d/perhaps", "not synced") ? 1 : is(d, "d/perhaps", NULL) ? 2 : 4;
		seen |= is(d, "elsewhere", NULL) ? 8 : is(d, "d/kept", NULL) ? 16 : 32;
		if (i == CRASHES - 1)
			assert_int_equal(seen, 63);
	}
}

/* Content, rename, directory, in this order: what programs do to replace a file. And exchanges are whole. */
static void test_replacing(void **state)
{
	(void)state;
	for (unsigned i = 0, seen = 0; i < CRASHES; i++) {
		struct sim_disk_options options = ordered((enum sim_order)(i % 3));
		bool exchange = i % 2, synced = i % 5 == 0;
		uint64_t stream = i;
		int root, staging;
		struct sim_disk *d = begin(&options, i, &root);

		assert_int_equal(file_mkdir(root, "staging", 0755), 0);
		put(root, "f", "old", true);
		assert_int_equal(file_fsync(root), 0);
		assert_int_equal(file_open_directory_at(root, "staging", &staging), 0);
		put(staging, "t", "new", true);
		assert_int_equal(file_fsync(staging), 0);
		if (exchange)
			assert_int_equal(file_exchange(staging, "t", root, "f"), 0);
		else
			assert_int_equal(file_rename_replace(staging, "t", root, "f"), 0);
		if (synced)
			assert_int_equal(file_fsync(root), 0);
		close_keep(staging);
		close_keep(root);
		sim_disk_crash(d, &stream);
		sim_disk_check(d);
		if (is(d, "f", "old")) {
			assert_true(is(d, "staging/t", "new"));
			assert_false(synced);
			seen |= 1;
		} else {
			assert_true(is(d, "f", "new"));
			if (exchange)
				assert_true(is(d, "staging/t", "old"));
			else if (options.order != SIM_SPLIT)
				assert_true(is(d, "staging/t", NULL));
			seen |= 2;
		}
		if (i == CRASHES - 1)
			assert_int_equal(seen, 3);
	}
}

/* Whatever was done since the last sync: a name is as it was at some moment since. */
#define NAMES 5
#define MOMENTS 40

struct past {
	struct sim_disk *d;
	uint64_t stream;
	int root;
	char at[MOMENTS][NAMES][256];
	size_t n;
	unsigned token;
};

static void remember(struct past *p)
{
	for (size_t i = 0; i < NAMES; i++) {
		const char name[] = {(char)('0' + i), 0}, *text = text_of(p->d, name);

		snprintf(p->at[p->n][i], sizeof(p->at[p->n][i]), "%s", text ? text : "");
	}
	p->n++;
}

static void step(struct past *p)
{
	const char a[] = {(char)('0' + sim_below(&p->stream, NAMES)), 0}, b[] = {(char)('0' + sim_below(&p->stream, NAMES)), 0};
	char text[16];
	int fd;

	switch (sim_below(&p->stream, 6)) {
	case 0:
		snprintf(text, sizeof(text), "%u", ++p->token);
		if (file_create(p->root, a, 0644, &fd))
			return;
		assert_int_equal(file_write(fd, text, strlen(text), 0), 0);
		assert_int_equal(file_fsync(fd), 0);
		close_keep(fd);
		break;
	case 1:
		(void)file_unlink(p->root, a);
		break;
	case 2:
		(void)file_rename_replace(p->root, a, p->root, b);
		break;
	case 3:
		(void)file_link(p->root, a, p->root, b);
		break;
	case 4:
		(void)file_exchange(p->root, a, p->root, b);
		break;
	default:
		if (sim_one_in(&p->stream, 2))
			sim_disk_writeback(p->d, &p->stream);
		else if (file_fsync(p->root) == 0)
			p->n = 0;
	}
	remember(p);
}

static void test_names_have_a_past(void **state)
{
	(void)state;
	for (unsigned i = 0; i < CRASHES; i++) {
		struct sim_disk_options options = ordered((enum sim_order)(i % 3));
		struct past p = {.stream = i};

		p.d = begin(&options, i, &p.root);
		remember(&p);
		for (size_t k = sim_below(&p.stream, MOMENTS - 1); k > 0; k--)
			step(&p);
		close_keep(p.root);
		sim_disk_crash(p.d, &p.stream);
		sim_disk_check(p.d);
		for (size_t k = 0; k < NAMES; k++) {
			const char name[] = {(char)('0' + k), 0}, *text = text_of(p.d, name);
			bool known = false;

			for (size_t m = 0; m < p.n; m++)
				known |= strcmp(p.at[m][k], text ? text : "") == 0;
			assert_true(known);
		}
	}
}

/* Synced files are moved about in trees that change, by rename, link and unlink: none is lost, whatever part of it persists. */
#define FILES 4
#define PLACES_MAX 64

struct places {
	struct sim_disk *d;
	char path[PLACES_MAX][64];
	bool directory[PLACES_MAX];
	size_t n;
	unsigned files; /* bits: what was found */
};

static int add_place(const char *path, const struct file_stat *st, void *data)
{
	struct places *p = data;

	if (p->n == PLACES_MAX || strlen(path) >= sizeof(p->path[0]))
		return 0;
	strcpy(p->path[p->n], path);
	p->directory[p->n++] = st->kind == FILE_KIND_DIRECTORY;
	if (st->kind != FILE_KIND_DIRECTORY)
		p->files |= 1U << strtoul(text_of(p->d, path), NULL, 10);
	return 0;
}

/* The root is among them. */
static struct places places_of(struct sim_disk *d)
{
	struct places p = {.d = d, .n = 1, .directory = {true}};

	assert_int_equal(sim_user_walk(d, "", add_place, &p), 0);
	return p;
}

static void move_about(struct sim_disk *d, uint64_t *stream, unsigned number)
{
	const struct places p = places_of(d);
	size_t from = sim_below(stream, p.n), to = sim_below(stream, p.n);
	struct file_stat st;
	char name[80];

	while (!p.directory[to])
		to = sim_below(stream, p.n);
	snprintf(name, sizeof(name), "%s%s%u", p.path[to], to ? "/" : "", number % 3);
	if (sim_user_stat(d, name, &st) == 0)
		return; /* what a user overwrites is lost */
	switch (sim_below(stream, 8)) {
	case 0:
		(void)sim_user_mkdir(d, name, 0755);
		break;
	case 1:
		(void)sim_user_rmdir(d, p.path[from]);
		break;
	case 2:
		if (!p.directory[from] && sim_user_link(d, p.path[from], name) == 0)
			assert_int_equal(sim_user_unlink(d, p.path[from]), 0);
		break;
	case 3:
		(void)sim_user_fsync(d, p.path[from]);
		break;
	case 4:
		if (from && to && p.directory[from])
			(void)sim_user_exchange(d, p.path[from], p.path[to]);
		break;
	default:
		if (from)
			(void)sim_user_rename(d, p.path[from], name);
	}
}

static void test_nothing_synced_is_lost(void **state)
{
	(void)state;
	for (unsigned i = 0; i < 10 * CRASHES; i++) {
		struct sim_disk_options options = ordered((enum sim_order)(i % 3));
		uint64_t stream = i;
		struct sim_disk *d;
		int root;

		d = begin(&options, i, &root);
		for (unsigned k = 0; k < FILES; k++)
			put(root, (char[]){(char)('a' + k), 0}, (char[]){(char)('0' + k), 0}, true);
		close_keep(root);
		sim_disk_sync(d);
		for (unsigned k = 0; k < 30; k++)
			move_about(d, &stream, k);
		sim_disk_crash(d, &stream);
		sim_disk_check(d);
		assert_int_equal(places_of(d).files, (1U << FILES) - 1);
	}
}

/* Made in one step: its times may be lost, its target not in part. */
static void test_symlinks_are_whole(void **state)
{
	(void)state;
	for (unsigned i = 0; i < CRASHES; i++) {
		struct sim_disk_options options = ordered((enum sim_order)(i % 3));
		uint64_t stream = i;
		struct file_stat st;
		struct sim_disk *d;
		int root;

		d = begin(&options, i, &root);
		assert_int_equal(file_symlink("target", root, "s"), 0);
		assert_int_equal(file_fsync(root), 0);
		assert_int_equal(sim_user_touch(d, "s", CLOCK_NS_PER_S), 0);
		close_keep(root);
		sim_disk_crash(d, &stream);
		assert_int_equal(sim_user_stat(d, "s", &st), 0);
		assert_int_equal(st.size, 6);
	}
}

/* Inside out: persisting the second move alone would put each into the other. */
static void test_directories_inside_out(void **state)
{
	(void)state;
	for (unsigned i = 0; i < CRASHES; i++) {
		struct sim_disk_options options = ordered((enum sim_order)(i % 3));
		uint64_t stream = i;
		struct sim_disk *d;

		sim_begin(i);
		d = sim_disk_new(sim_host_new(), &options);
		assert_int_equal(sim_user_mkdir(d, "b", 0755), 0);
		assert_int_equal(sim_user_mkdir(d, "b/c", 0755), 0);
		assert_int_equal(sim_user_mkdir(d, "b/c/a", 0755), 0);
		assert_int_equal(sim_user_write(d, "b/c/a/f", "0", 1), 0);
		sim_disk_sync(d);
		assert_int_equal(sim_user_rename(d, "b/c/a", "a"), 0);
		assert_int_equal(sim_user_rename(d, "b", "a/b"), 0);
		sim_disk_crash(d, &stream);
		sim_disk_check(d);
		assert_int_equal(places_of(d).files, 1);
	}
}

static void test_data_is_torn(void **state)
{
	unsigned mixed = 0, whole = 0, torn = 0;

	(void)state;
	for (unsigned i = 0; i < CRASHES; i++) {
		static uint8_t bytes[3 * 4096];
		struct file_stat st;
		uint64_t stream = i;
		bool pages[3];
		size_t n;
		int root, fd = -1;
		struct sim_disk *d = begin(NULL, i, &root);

		memset(bytes, 'o', sizeof(bytes));
		assert_int_equal(file_create(root, "f", 0644, &fd), 0);
		assert_int_equal(file_write(fd, bytes, sizeof(bytes), 0), 0);
		assert_int_equal(file_fsync(fd), 0);
		memset(bytes, 'n', sizeof(bytes));
		assert_int_equal(file_write(fd, bytes, sizeof(bytes), 0), 0);
		assert_int_equal(file_set_mtime_fd(fd, 0), 0);
		close_keep(fd);
		close_keep(root);
		sim_disk_crash(d, &stream);
		assert_int_equal(sim_user_read(d, "f", bytes, sizeof(bytes), &n), 0);
		assert_int_equal(n, sizeof(bytes));
		assert_int_equal(sim_user_stat(d, "f", &st), 0);
		for (size_t k = 0; k < 3; k++) {
			pages[k] = bytes[k * 4096] == 'n';
			assert_true(pages[k] || bytes[k * 4096] == 'o');
			torn += bytes[k * 4096] != bytes[k * 4096 + 4095];
			assert_true(!pages[k] || st.mtime_ns == 0);
		}
		if (pages[0] == pages[1] && pages[1] == pages[2])
			whole++;
		else
			mixed++;
	}
	assert_true(mixed && whole && torn);
}

/* Cut short and written anew, in order: old bytes only beneath old times, and not at all once the journal was written. */
static void test_rewritten_in_order(void **state)
{
	unsigned seen = 0;

	(void)state;
	for (unsigned i = 0; i < CRASHES; i++) {
		struct file_stat before, after;
		bool journal = i % 2;
		uint64_t stream = i;
		int root;
		struct sim_disk *d = begin(NULL, i, &root);

		put(root, "f", "old", true);
		assert_int_equal(file_stat_at(root, "f", &before), 0);
		assert_int_equal(sim_user_write(d, "f", "new", 3), 0);
		if (journal)
			put(root, "g", "x", true);
		close_keep(root);
		sim_disk_crash(d, &stream);
		assert_int_equal(sim_user_stat(d, "f", &after), 0);
		assert_true(is(d, "f", "old") || is(d, "f", "new") || is(d, "f", ""));
		assert_int_equal(is(d, "f", "old"), before.mtime_ns == after.mtime_ns);
		assert_false(journal && is(d, "f", "old"));
		seen |= is(d, "f", "old") ? 1 : is(d, "f", "new") ? 2 : 4;
	}
	assert_int_equal(seen, 7);
}

static void test_failed_sync_drops(void **state)
{
	const struct sim_fault once = {.calls = SIM_BIT(FSYNC), .error = EIO, .times = 1};
	unsigned cached = 0;

	(void)state;
	for (unsigned i = 0; i < CRASHES; i++) {
		uint64_t stream = i;
		int root, fd = -1;
		struct sim_disk *d = begin(NULL, i, &root);

		put(root, "f", "old", true);
		assert_int_equal(file_open_write(root, "f", &fd), 0);
		assert_int_equal(file_write(fd, "new", 3, 0), 0);
		sim_disk_fault(d, &once);
		assert_int_equal(file_fsync(fd), -EIO);
		cached += is(d, "f", "new");
		assert_int_equal(file_fsync(fd), 0);
		close_keep(fd);
		close_keep(root);
		sim_disk_crash(d, &stream);
		assert_true(is(d, "f", "old"));
	}
	assert_true(cached && cached < CRASHES);
}

/* --- faults --- */

static void test_faults(void **state)
{
	const struct sim_fault third = {.calls = SIM_BIT(DIR_NEXT), .error = EIO, .after = 2, .times = 1};
	const struct sim_fault denied = {.calls = SIM_BIT(STAT_AT), .error = EACCES};
	struct file_dir *list = NULL;
	struct sim_disk *d;
	struct file_stat st;
	const char *name;
	int root;

	(void)state;
	d = begin(NULL, 1, &root);
	put(root, "a", "x", true);
	put(root, "b", "x", true);
	put(root, "c", "x", true);
	sim_disk_fault(d, &third);
	assert_int_equal(file_dir_open(root, &list), 0);
	assert_int_equal(file_dir_next(list, &name), 0);
	assert_int_equal(file_dir_next(list, &name), 0);
	assert_int_equal(file_dir_next(list, &name), -EIO);
	assert_int_equal(file_dir_next(list, &name), 0);
	file_dir_close(list);
	sim_disk_fault(d, &denied);
	assert_int_equal(file_stat_at(root, "a", &st), FILE_DENIED);
	sim_disk_heal(d);
	assert_int_equal(file_stat_at(root, "a", &st), 0);
	sim_disk_read_only(d, true);
	assert_int_equal(file_unlink(root, "a"), -EROFS);
	assert_int_equal(sim_user_write(d, "a", "y", 1), -EROFS);
	sim_disk_read_only(d, false);
	sim_disk_kill(d);
	assert_int_equal(file_unlink(root, "a"), -EIO);
	close_keep(root);
	sim_disk_revive(d);
	assert_true(is(d, "a", "x"));
}

static void test_full(void **state)
{
	static const uint8_t bytes[65536] = {1};
	uint64_t available, total;
	struct sim_disk *d;
	struct file_stat st;
	int root, fd = -1;

	(void)state;
	d = begin(NULL, 1, &root);
	sim_disk_capacity(d, 40000);
	assert_int_equal(file_create(root, "f", 0644, &fd), 0);
	assert_int_equal(file_write(fd, bytes, sizeof(bytes), 0), -ENOSPC);
	assert_int_equal(file_stat_fd(fd, &st), 0);
	assert_true(st.size > 0 && st.size <= 40000);
	assert_int_equal(file_space(fd, &available, &total), 0);
	assert_true(available < 4096 && total == 40000);
	assert_int_equal(file_truncate(fd, 0), 0);
	assert_int_equal(file_write(fd, bytes, 8192, 0), 0);
	close_keep(fd);
	close_keep(root);
	sim_disk_check(d);
}

/* --- users --- */

static void test_leases(void **state)
{
	struct sim_disk *d;
	int root, fd = -1, user;

	(void)state;
	d = begin(NULL, 1, &root);
	put(root, "f", "x", true);
	assert_int_equal(file_open_read(root, "f", &fd), 0);
	user = sim_user_open(d, "f", 0);
	assert_true(user >= 0);
	assert_int_equal(file_lease_read(fd), FILE_BUSY);
	assert_true(file_lease_broken(fd));
	sim_user_close(user);
	assert_int_equal(file_lease_read(fd), 0);
	assert_false(file_lease_broken(fd));
	assert_int_equal(sim_user_open(d, "f", 0), -EAGAIN);
	assert_true(file_lease_broken(fd));
	assert_int_equal(file_lease_release(fd), FILE_BUSY);
	assert_int_equal(sim_user_write(d, "f", "y", 1), 0);
	close_keep(fd);
	close_keep(root);
}

static void test_times(void **state)
{
	struct sim_disk_options options = sim_disk_usual;
	struct file_stat before, after;
	struct sim_disk *d;
	int root, fd;

	(void)state;
	options.tick_ns = 4 * CLOCK_NS_PER_MS;
	d = begin(&options, 1, &root);
	put(root, "f", "abc", true);
	assert_int_equal(file_stat_at(root, "f", &before), 0);
	assert_int_equal(before.ctime_ns % options.tick_ns, 0);
	sim_advance(CLOCK_NS_PER_S);
	fd = sim_user_open(d, "f", 0);
	assert_int_equal(sim_user_store(fd, "x", 1, 1), 0);
	sim_user_close(fd);
	assert_true(is(d, "f", "axc"));
	assert_int_equal(file_stat_at(root, "f", &after), 0);
	assert_true(before.mtime_ns == after.mtime_ns && before.ctime_ns == after.ctime_ns);
	assert_int_equal(sim_user_rewrite(d, "f", "123", 3), 0);
	assert_int_equal(file_stat_at(root, "f", &after), 0);
	assert_true(before.mtime_ns == after.mtime_ns && before.size == after.size);
	assert_true(before.ctime_ns < after.ctime_ns);
	close_keep(root);
}

static void test_inodes(void **state)
{
	struct sim_disk_options options = sim_disk_usual;
	struct file_stat a, b;
	int root;

	(void)state;
	for (int fresh = 0; fresh < 2; fresh++) {
		options.new_inodes = fresh;
		begin(&options, 1, &root);
		put(root, "a", "x", true);
		assert_int_equal(file_stat_at(root, "a", &a), 0);
		assert_int_equal(file_unlink(root, "a"), 0);
		put(root, "b", "x", true);
		assert_int_equal(file_stat_at(root, "b", &b), 0);
		assert_int_equal(a.ino == b.ino, !fresh);
		close_keep(root);
	}
}

/* --- machines --- */

static void test_clocks(void **state)
{
	struct sim_host *a, *b;
	int64_t wall;

	(void)state;
	sim_begin(1);
	a = sim_host_new();
	b = sim_host_new();
	wall = clock_wall_ns();
	sim_host_jump(a, -3600 * CLOCK_NS_PER_S);
	assert_int_equal(clock_wall_ns(), wall - 3600 * CLOCK_NS_PER_S);
	sim_host_suspend(b, 50);
	assert_int_equal(clock_monotonic_ns(), clock_boot_ns());
	sim_host_enter(b);
	assert_int_equal(clock_monotonic_ns() + 50, clock_boot_ns());
	assert_true(llabs(clock_wall_ns() - wall) < 2 * CLOCK_NS_PER_S);
}

static void test_mounts(void **state)
{
	struct file_stat before, after, covered;
	struct sim_disk *d, *other;
	int root, fd = -1;

	(void)state;
	d = begin(NULL, 1, &root);
	other = sim_disk_new(sim_host_new(), NULL);
	assert_int_equal(sim_user_mkdir(d, "m", 0755), 0);
	assert_int_equal(file_stat_fd(root, &before), 0);
	close_keep(root);
	assert_int_equal(file_open_directory("/a/../a/m/..", &root), 0);
	assert_int_equal(file_stat_fd(root, &after), 0);
	assert_true(before.ino == after.ino && before.dev == after.dev);
	assert_int_equal(sim_cover(d, "m", true), 0);
	assert_int_equal(file_stat_at(root, "m", &covered), FILE_OUTSIDE);
	assert_int_equal(file_open_directory_at(root, "m", &fd), FILE_OUTSIDE);
	assert_int_equal(file_rmdir(root, "m"), FILE_BUSY);
	assert_int_equal(file_rename_replace(root, "m", root, "n"), FILE_BUSY);
	close_keep(root);
	sim_unmount("/a");
	assert_int_equal(file_open_directory("/a", &fd), FILE_VANISHED);
	sim_mount(other, "/a");
	sim_mount(d, "/a");
	assert_int_equal(file_open_directory("/a", &root), 0);
	assert_int_equal(file_stat_fd(root, &after), 0);
	assert_true(before.ino == after.ino && before.dev != after.dev);
	close_keep(root);
}

static void test_copies(void **state)
{
	struct sim_disk *d, *image, *clone;
	struct file_stat a, b;
	uint64_t stream = 1;
	int root;

	(void)state;
	d = begin(NULL, 1, &root);
	put(root, "f", "one", true);
	put(root, "g", "gone", false);
	assert_int_equal(file_unlink(root, "g"), 0);
	image = sim_disk_clone(d, sim_host_new());
	sim_disk_check(image);
	assert_int_equal(sim_user_write(d, "f", "two", 3), 0);
	assert_true(is(image, "f", "one"));
	assert_int_equal(sim_user_stat(d, "f", &a), 0);
	assert_int_equal(sim_user_stat(image, "f", &b), 0);
	assert_int_equal(a.ino, b.ino);
	close_keep(root);
	sim_disk_restore(d, image);
	sim_disk_check(d);
	assert_true(is(d, "f", "one"));
	clone = sim_disk_new(sim_host_new(), NULL);
	assert_int_equal(sim_user_mkdir(clone, "x", 0755), 0);
	assert_int_equal(sim_user_copy(d, "", clone, ""), 0);
	assert_true(is(clone, "f", "one"));
	assert_int_equal(sim_user_stat(clone, "f", &b), 0);
	assert_int_equal(a.size, b.size);
	for (unsigned i = 0; i < 20; i++) {
		sim_disk_crash(image, &stream);
		sim_disk_check(image);
		assert_true(is(image, "f", "one"));
	}
}

static uint64_t replay(uint64_t seed)
{
	uint64_t trace;
	char *text;
	int root;

	begin(NULL, seed, &root);
	text = fs_ops_run("/a", 7, 50);
	sim_trace_add(random_id());
	trace = sim_trace();
	free(text);
	close_keep(root);
	return trace;
}

static void test_replay(void **state)
{
	(void)state;
	assert_int_equal(replay(5), replay(5));
	assert_int_not_equal(replay(5), replay(6));
}

/* --- an index --- */

struct run {
	uint64_t kill_at;
	unsigned tried, committed;
};

static void kill_at(struct sim_disk *d, enum sim_call call, uint64_t n, void *data)
{
	(void)call;
	if (n == ((struct run *)data)->kill_at)
		sim_disk_kill(d);
}

static int open_index(struct index **ret, bool create)
{
	cleanup_close int root = -1, dir = -1;
	int r = file_open_directory("/a", &root);

	if (r == 0)
		r = file_open_directory_at(root, "index", &dir);
	return r ? r : index_open(ret, dir, create);
}

static unsigned value_of(struct index *x)
{
	struct index_txn *t = NULL;
	struct buf b = BUF_INIT;
	unsigned value = 0;

	assert_int_equal(index_begin_read(x, &t), 0);
	if (index_meta_get(t, INDEX_META_KNOWLEDGE, &b) == 0)
		memcpy(&value, b.data, sizeof(value));
	index_abort(t);
	assert_true(b.len == 0 || b.len % 5000 == 0);
	buf_deinit(&b);
	return value;
}

/* Values of several pages, each the number of its commit in the first bytes. */
static void commit(struct index *x, struct run *run)
{
	static unsigned value[5000];
	struct index_txn *w = NULL;

	value[0] = run->tried + 1;
	if (index_begin_write(x, &w))
		return;
	if (index_meta_put(w, INDEX_META_KNOWLEDGE, value, 5000 * (1 + value[0] % 4))) {
		index_abort(w);
		return;
	}
	run->tried++;
	if (index_commit(&w) == 0)
		run->committed = run->tried;
}

/* False once the run is over before the machine was killed. */
static bool crash_index(struct sim_disk *d, struct run *run, uint64_t *stream)
{
	struct index *x = NULL;
	bool killed;

	sim_disk_hook(d, kill_at, run);
	if (open_index(&x, false) == 0)
		for (unsigned i = 0; i < 5; i++)
			commit(x, run);
	index_close(x);
	killed = sim_disk_killed(d);
	sim_disk_hook(d, NULL, NULL);
	sim_disk_crash(d, stream);
	sim_disk_check(d);
	x = NULL;
	assert_int_equal(open_index(&x, false), 0);
	assert_in_range(value_of(x), run->committed, run->tried);
	index_close(x);
	return killed;
}

static void test_index_crashes(void **state)
{
	unsigned halves = 0;

	(void)state;
	for (unsigned round = 0; round < 6; round++) {
		struct sim_disk_options options = ordered((enum sim_order)(round % 3));
		uint64_t stream = round;
		bool killed = true;

		for (uint64_t k = 1; killed; k++) {
			struct sim_disk *d;
			struct run run = {0};
			struct index *x = NULL;
			int root;

			d = begin(&options, round, &root);
			close_keep(root);
			assert_int_equal(sim_user_mkdir(d, "index", 0700), 0);
			assert_int_equal(open_index(&x, true), 0);
			commit(x, &run);
			index_close(x);
			sim_disk_sync(d);
			run.kill_at = sim_disk_calls(d) + k;
			killed = crash_index(d, &run, &stream);
			halves += run.committed != run.tried;
		}
	}
	assert_true(halves > 10);
}

static void test_index_copied(void **state)
{
	struct index *x = NULL;
	struct sim_disk *d, *copy;
	struct run run = {0};
	int root;

	(void)state;
	d = begin(NULL, 1, &root);
	close_keep(root);
	assert_int_equal(sim_user_mkdir(d, "index", 0700), 0);
	assert_int_equal(open_index(&x, true), 0);
	commit(x, &run);
	copy = sim_disk_clone(d, sim_host_new());
	commit(x, &run);
	assert_int_equal(value_of(x), 2);
	index_close(x);
	x = NULL;
	sim_disk_restore(d, copy);
	assert_int_equal(open_index(&x, false), 0);
	assert_int_equal(value_of(x), 1);
	index_close(x);
}

static void test_index_full(void **state)
{
	const struct sim_fault failing = {.calls = SIM_BIT(INDEX_SYNC), .error = EIO, .times = 1};
	struct index *x = NULL;
	struct sim_disk *d;
	struct run run = {0};
	int root;

	(void)state;
	d = begin(NULL, 1, &root);
	close_keep(root);
	assert_int_equal(sim_user_mkdir(d, "index", 0700), 0);
	assert_int_equal(open_index(&x, true), 0);
	commit(x, &run);
	sim_disk_capacity(d, 1);
	commit(x, &run);
	assert_int_equal(run.committed, 1);
	sim_disk_capacity(d, 0);
	sim_disk_fault(d, &failing);
	commit(x, &run);
	assert_int_equal(run.committed, 1);
	index_close(x);
	x = NULL;
	assert_int_equal(open_index(&x, false), 0);
	assert_int_equal(value_of(x), 1);
	index_close(x);
}

#define test(name) cmocka_unit_test_teardown(test_##name, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		test(kernel),
		test(probe),
		test(names_fold),
		test(rights),
		test(synced_survives),
		test(replacing),
		test(names_have_a_past),
		test(nothing_synced_is_lost),
		test(symlinks_are_whole),
		test(directories_inside_out),
		test(data_is_torn),
		test(rewritten_in_order),
		test(failed_sync_drops),
		test(faults),
		test(full),
		test(leases),
		test(times),
		test(inodes),
		test(clocks),
		test(mounts),
		test(copies),
		test(replay),
		test(index_crashes),
		test(index_copied),
		test(index_full),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
