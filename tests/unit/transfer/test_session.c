/* tests/unit/transfer/test_session.c — whole sessions between real replicas in one process, driven in random order. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#define WORLD_STOP() fail()
#include "tests/sim/world.h"
#include "tombstones/trash.h"
#include "tests/unit/transfer/message_samples.h"

/* Each scenario is run under several seeds: SEEDS=20 runs twenty times as many, SEED=n that one alone, and traces it. */
static void with_seeds(unsigned n, size_t sites, void (*run)(struct world *w))
{
	const char *only = getenv("SEED"), *times = getenv("SEEDS");
	uint64_t from = only ? strtoull(only, NULL, 10) : 1;

	for (uint64_t seed = from; seed < from + (only ? 1 : times ? n * strtoul(times, NULL, 10) : n); seed++) {
		struct world w;

		world_begin(&w, seed, sites);
		w.trace = only != NULL;
		run(&w);
		world_end(&w);
	}
}

static void fill(uint8_t *p, size_t n, uint64_t seed)
{
	for (size_t i = 0; i < n; i++)
		p[i] = (uint8_t)(test_random(&seed) >> 32);
}

static void write_big(struct site *s, const char *path, size_t n, uint64_t seed)
{
	uint8_t *p = malloc(n);

	fill(p, n, seed);
	site_write_bytes(s, path, p, n);
	free(p);
}

/* --- copies --- */

static void make_many(struct site *s)
{
	char path[64];

	site_mkdir(s, "dir");
	site_mkdir(s, "dir/deeper");
	site_mkdir(s, "empty-dir");
	site_mkdir(s, "read-only");
	for (unsigned i = 0; i < 180; i++) {
		snprintf(path, sizeof(path), "%sfile-%u", i % 3 ? (i % 3 == 1 ? "dir/" : "dir/deeper/") : "", i);
		site_write(s, path, path);
	}
	site_write(s, "empty", "");
	site_write(s, "dir/empty", "");
	write_big(s, "big", 1000000, 1);
	write_big(s, "dir/big", 65537, 2);
	write_big(s, "dir/edge", 65536, 3);
	write_big(s, "dir/deeper/huge", 4000000, 4);
	site_symlink(s, "link", "dir/file-1");
	site_symlink(s, "dir/dangling", "/nowhere/at all");
	site_write(s, "read-only/file", "in a read-only directory");
	chmod(site_at(s, "read-only/file"), 0400);
	chmod(site_at(s, "read-only"), 0555);
	chmod(site_at(s, "dir/empty"), 04755);
}

static void initial_copy(struct world *w)
{
	struct site *a = &w->sites[0], *b = &w->sites[1];
	struct wire was;
	bool from_client = w->seed & 1;

	make_many(a);
	world_sync(w, from_client ? a : b, from_client ? b : a, &was);
	sites_expect_equal(a, b);
	assert_true(was.end[0].status.in_sync && was.end[1].status.in_sync);
	assert_true(was.end[from_client].status.content_in > 5000000);
	assert_int_equal(was.end[from_client].status.conflicts, 0);
	site_scan(b);
	assert_int_equal(b->seen.events, 0);
	/* equal roots: one round, no content, hardly a byte */
	world_sync(w, a, b, &was);
	assert_int_equal(was.end[0].status.round, 1);
	assert_int_equal(was.end[0].status.content_in + was.end[1].status.content_in, 0);
	assert_true(was.moved < 4096);
	assert_int_equal(was.end[0].rounds, 1);
}

static void test_initial_copy(void **state)
{
	(void)state;
	with_seeds(2, 2, initial_copy);
}

static void nothing_at_all(struct world *w)
{
	struct wire was;

	world_sync(w, &w->sites[0], &w->sites[1], &was);
	assert_true(was.end[0].status.in_sync);
	world_sync(w, &w->sites[1], &w->sites[0], &was);
	assert_true(was.end[0].status.in_sync);
	sites_expect_equal(&w->sites[0], &w->sites[1]);
}

static void test_empty_folders(void **state)
{
	(void)state;
	with_seeds(30, 2, nothing_at_all);
}

static void big_edits(struct world *w)
{
	struct site *a = &w->sites[0], *b = &w->sites[1];
	static uint8_t bytes[3000000];
	struct wire was;

	fill(bytes, sizeof(bytes), w->seed);
	site_write_bytes(a, "big", bytes, sizeof(bytes));
	world_sync(w, a, b, NULL);
	bytes[1500000] ^= 1;
	site_write_bytes(a, "big", bytes, sizeof(bytes));
	world_sync(w, a, b, &was);
	sites_expect_equal(a, b);
	assert_true(was.end[1].status.content_in <= 4096); /* a piece or two */
	assert_true(was.end[1].status.content_in > 0);
	/* copied and moved content is not sent again */
	site_write_bytes(b, "copy", bytes, sizeof(bytes));
	site_rename(b, "big", "renamed");
	world_sync(w, b, a, &was);
	sites_expect_equal(a, b);
	assert_int_equal(was.end[1].status.content_in, 0);
	/* holes, and a file that shrinks */
	memset(bytes + 200000, 0, 2000000);
	site_write_bytes(b, "renamed", bytes, sizeof(bytes));
	site_write_bytes(a, "copy", bytes, 70000);
	world_sync(w, a, b, &was);
	sites_expect_equal(a, b);
}

static void test_big_edits(void **state)
{
	(void)state;
	with_seeds(2, 2, big_edits);
}

/* --- both sides --- */

static void edits_on_both_sides(struct world *w)
{
	struct site *a = &w->sites[0], *b = &w->sites[1];
	struct timespec times[2] = {{.tv_nsec = UTIME_OMIT}, {.tv_sec = 1234567890, .tv_nsec = 987654321}};
	struct wire was;

	site_mkdir(a, "d");
	site_write(a, "d/x", "x");
	site_write(a, "d/y", "y");
	site_write(a, "d/z", "z");
	site_write(a, "gone-a", "gone-a");
	site_write(a, "gone-b", "gone-b");
	world_sync(w, a, b, NULL);
	site_write(a, "d/x", "x of a");
	site_write(b, "d/y", "y of b");
	site_write(a, "new-a", "new of a");
	site_write(b, "new-b", "new of b");
	site_remove(a, "gone-a");
	site_remove(b, "gone-b");
	chmod(site_at(a, "d/z"), 0700);
	utimensat(AT_FDCWD, site_at(b, "d/z"), times, 0);
	chmod(site_at(b, "d"), 0750);
	world_sync(w, a, b, &was);
	sites_expect_equal(a, b);
	assert_string_equal(site_read(a, "d/y"), "y of b");
	assert_string_equal(site_read(b, "d/x"), "x of a");
	assert_string_equal(site_read(a, "new-b"), "new of b");
	assert_string_equal(site_read(b, "new-a"), "new of a");
	assert_int_equal(site_kind(b, "gone-a"), 0);
	assert_int_equal(site_kind(a, "gone-b"), 0);
	assert_int_equal(was.end[0].status.conflicts + was.end[1].status.conflicts, 0);
	assert_int_equal(site_exceptions(a) + site_exceptions(b), 0);
}

static void test_edits_on_both_sides(void **state)
{
	(void)state;
	with_seeds(10, 2, edits_on_both_sides);
}

/* How many files of that text are there, and how many of them bear a conflict name? */
static unsigned found(struct site *s, const char *text, unsigned *copies)
{
	char *argv[] = {s->root, NULL};
	FTS *fts = fts_open(argv, FTS_PHYSICAL | FTS_NOCHDIR, NULL);
	unsigned n = 0;
	FTSENT *e;

	while ((e = fts_read(fts))) {
		const char *path = e->fts_path + strlen(s->root);

		if (e->fts_level == 1 && strcmp(e->fts_name, ".syncd") == 0)
			fts_set(fts, e, FTS_SKIP);
		else if (e->fts_info == FTS_F && strcmp(site_read(s, path + 1), text) == 0) {
			n++;
			if (copies && strstr(path, ".sync-conflict-"))
				++*copies;
		}
	}
	fts_close(fts);
	return n;
}

static void conflict(struct world *w)
{
	struct site *a = &w->sites[0], *b = &w->sites[1];
	struct wire was;
	unsigned copies = 0;

	site_write(a, "f.txt", "old");
	world_sync(w, a, b, NULL);
	site_write(a, "f.txt", "edit of a");
	site_write(b, "f.txt", "edit of b");
	site_write(a, "new", "new of a");
	site_write(b, "new", "new of b");
	world_sync(w, a, b, &was);
	sites_expect_equal(a, b);
	assert_int_equal(was.end[0].status.conflicts + was.end[1].status.conflicts, 2);
	assert_int_equal(found(a, "edit of a", &copies), 1);
	assert_int_equal(found(a, "edit of b", &copies), 1);
	assert_int_equal(copies, 1);
	assert_int_equal(found(a, "new of a", &copies), 1);
	assert_int_equal(found(a, "new of b", &copies), 1);
	assert_int_equal(copies, 2);
	assert_int_equal(site_exceptions(a) + site_exceptions(b), 0);
	/* a deletion of one side, an edit of the other: the edit stays */
	site_remove(a, "new");
	site_write(b, "new", "edited again");
	world_sync(w, b, a, &was);
	sites_expect_equal(a, b);
	assert_string_equal(site_read(a, "new"), "edited again");
	assert_int_equal(was.end[0].status.conflicts + was.end[1].status.conflicts, 0);
}

static void test_conflict(void **state)
{
	(void)state;
	with_seeds(10, 2, conflict);
}

static void kinds(struct world *w)
{
	struct site *a = &w->sites[0], *b = &w->sites[1];

	site_mkdir(a, "dir-to-file");
	site_mkdir(a, "dir-to-file/sub");
	site_write(a, "dir-to-file/sub/x", "x");
	site_write(a, "dir-to-file/y", "y");
	site_write(a, "file-to-dir", "f");
	site_write(a, "file-to-link", "g");
	site_symlink(a, "link-to-dir", "g");
	site_mkdir(a, "dir-to-link");
	site_symlink(a, "link-to-link", "g");
	world_sync(w, a, b, NULL);
	sites_expect_equal(a, b);
	site_remove(b, "dir-to-file");
	site_write(b, "dir-to-file", "now a file");
	site_remove(b, "file-to-dir");
	site_mkdir(b, "file-to-dir");
	site_mkdir(b, "file-to-dir/deep");
	site_write(b, "file-to-dir/deep/child", "child");
	site_remove(b, "file-to-link");
	site_symlink(b, "file-to-link", "file-to-dir");
	site_remove(b, "link-to-dir");
	site_mkdir(b, "link-to-dir");
	site_remove(b, "dir-to-link");
	site_symlink(b, "dir-to-link", "elsewhere");
	site_remove(b, "link-to-link");
	site_symlink(b, "link-to-link", "other");
	world_sync(w, w->seed & 1 ? a : b, w->seed & 1 ? b : a, NULL);
	sites_expect_equal(a, b);
	assert_int_equal(site_kind(a, "dir-to-file"), '-');
	assert_string_equal(site_read(a, "file-to-dir/deep/child"), "child");
	assert_int_equal(site_kind(a, "file-to-link"), 'l');
	assert_int_equal(site_kind(a, "link-to-dir"), 'd');
	assert_string_equal(site_read(a, "dir-to-link"), "elsewhere");
	assert_string_equal(site_read(a, "link-to-link"), "other");
	site_scan(a);
	assert_int_equal(a->seen.events, 0);
}

static void test_kinds(void **state)
{
	(void)state;
	with_seeds(10, 2, kinds);
}

/* A file here where a directory with content came to be there. */
static void kinds_in_conflict(struct world *w)
{
	struct site *a = &w->sites[0], *b = &w->sites[1];

	site_mkdir(a, "d");
	site_write(a, "d/old", "old");
	world_sync(w, a, b, NULL);
	site_write(a, "p", "a file");
	site_mkdir(b, "p");
	site_write(b, "p/child", "a child");
	site_remove(a, "d");
	site_write(a, "d", "a file too");
	site_write(b, "d/new", "new below");
	for (int i = 0; i < 3; i++)
		world_sync(w, i & 1 ? b : a, i & 1 ? a : b, NULL);
	sites_expect_equal(a, b);
	assert_int_equal(found(a, "a file", NULL), 1);
	assert_int_equal(found(a, "a child", NULL), 1);
	assert_int_equal(found(a, "a file too", NULL), 1);
	assert_int_equal(found(a, "new below", NULL), 1);
	assert_int_equal(found(a, "old", NULL), 0);
}

static void test_kinds_in_conflict(void **state)
{
	(void)state;
	with_seeds(10, 2, kinds_in_conflict);
}

/* A file that became a directory of more than goes into a batch, none of which has to be fetched: nothing is in conflict. */
static void many_in_the_way(struct world *w)
{
	struct site *a = &w->sites[0], *b = &w->sites[1];
	char path[64];

	site_write(a, "d", "was a file");
	site_write(a, "other", "other");
	world_sync(w, a, b, NULL);
	site_remove(a, "d");
	site_mkdir(a, "d");
	for (unsigned i = 0; i < SESSION_BATCH_OFFERS + 10; i++) {
		snprintf(path, sizeof(path), "d/link-%u", i);
		site_symlink(a, path, "x");
	}
	world_sync(w, w->seed & 1 ? a : b, w->seed & 1 ? b : a, NULL);
	sites_expect_equal(a, b);
	assert_int_equal(found(b, "was a file", NULL), 0);
}

static void test_many_in_the_way(void **state)
{
	(void)state;
	with_seeds(2, 2, many_in_the_way);
}

/* The next directory that is made by a descriptor is not. */
static bool no_directory;

int mkdirat(int dir, const char *path, mode_t mode);

int mkdirat(int dir, const char *path, mode_t mode)
{
	if (!no_directory || dir == AT_FDCWD)
		return (int)syscall(SYS_mkdirat, dir, path, mode);
	no_directory = false;
	errno = EIO;
	return -1;
}

/* A file that became a directory, which can't be made at first: what belongs into it waits, and the file is in no conflict. */
static void directory_fails(struct world *w)
{
	struct site *a = &w->sites[0], *b = &w->sites[1];

	site_write(a, "d", "was a file");
	world_sync(w, a, b, NULL);
	site_remove(a, "d");
	site_mkdir(a, "d");
	site_mkdir(a, "d/sub");
	site_write(a, "d/sub/below", "below");
	no_directory = true;
	world_sync(w, w->seed & 1 ? a : b, w->seed & 1 ? b : a, NULL);
	assert_false(no_directory);
	world_sync(w, a, b, NULL);
	sites_expect_equal(a, b);
	assert_int_equal(found(b, "was a file", NULL), 0);
	assert_string_equal(site_read(b, "d/sub/below"), "below");
}

static void test_directory_fails(void **state)
{
	(void)state;
	with_seeds(6, 2, directory_fails);
}

static void renamed_directory(struct world *w)
{
	struct site *a = &w->sites[0], *b = &w->sites[1];
	struct wire was;
	char path[64];

	site_mkdir(a, "d");
	site_mkdir(a, "d/e");
	for (unsigned i = 0; i < 150; i++) {
		snprintf(path, sizeof(path), "d/%sfile-%u", i & 1 ? "e/" : "", i);
		site_write(a, path, path);
	}
	write_big(a, "d/big", 300000, 7);
	world_sync(w, a, b, NULL);
	site_rename(a, "d", "renamed");
	world_sync(w, a, b, &was);
	sites_expect_equal(a, b);
	assert_int_equal(was.end[1].status.content_in, 0);
	assert_int_equal(site_kind(b, "d"), 0);
	assert_string_equal(site_read(b, "renamed/e/file-1"), "d/e/file-1");
	/* one renames it, the other adds to it under the old name */
	site_rename(a, "renamed", "again");
	site_write(b, "renamed/e/late", "late");
	for (int i = 0; i < 2; i++)
		world_sync(w, b, a, NULL);
	sites_expect_equal(a, b);
	assert_string_equal(site_read(a, "renamed/e/late"), "late");
	assert_string_equal(site_read(b, "again/e/file-1"), "d/e/file-1");
	assert_int_equal(site_kind(a, "renamed/e/file-1"), 0);
}

static void test_renamed_directory(void **state)
{
	(void)state;
	with_seeds(2, 2, renamed_directory);
}

/* What is renamed into a directory that cannot be made: it is deleted under its old name, and the session ends. */
static void renamed_to_nowhere(struct world *w)
{
	struct site *a = &w->sites[0], *b = &w->sites[1];
	struct wire was;

	site_write(a, "p", "moved");
	world_sync(w, a, b, NULL);
	assert_int_equal(mkfifo(site_at(b, "q"), 0600), 0);
	site_mkdir(a, "q");
	site_rename(a, "p", "q/s");
	world_sync(w, w->seed & 1 ? a : b, w->seed & 1 ? b : a, &was);
	assert_true(was.end[0].status.round <= 4);
	assert_int_equal(site_kind(b, "p"), 0);
	assert_int_equal(unlink(site_at(b, "q")), 0);
	for (int i = 0; i < 2; i++)
		world_sync(w, a, b, NULL);
	sites_expect_equal(a, b);
	assert_string_equal(site_read(b, "q/s"), "moved");
}

static void test_renamed_to_nowhere(void **state)
{
	(void)state;
	with_seeds(4, 2, renamed_to_nowhere);
}

static void identical_copies(struct world *w)
{
	struct site *a = &w->sites[0], *b = &w->sites[1];
	struct timespec times[2] = {{.tv_nsec = UTIME_OMIT}, {.tv_sec = 1400000000}};
	struct wire was;
	unsigned copies = 0;

	for (int i = 0; i < 2; i++) {
		struct site *s = &w->sites[i];

		site_mkdir(s, "d");
		write_big(s, "d/big", 400000, 5);
		site_write(s, "d/small", "the same");
		site_write(s, "empty", "");
		site_symlink(s, "link", "d/small");
	}
	utimensat(AT_FDCWD, site_at(b, "d/small"), times, 0); /* only what is no content differs */
	chmod(site_at(a, "empty"), 0600);
	world_sync(w, a, b, &was);
	sites_expect_equal(a, b);
	assert_int_equal(was.end[0].status.content_in + was.end[1].status.content_in, 0);
	assert_int_equal(was.end[0].status.conflicts + was.end[1].status.conflicts, 0);
	found(a, "the same", &copies);
	assert_int_equal(copies, 0);
	world_sync(w, b, a, &was);
	assert_int_equal(was.end[0].status.round, 1);
	/* and then deletions are deletions */
	site_remove(b, "d");
	world_sync(w, a, b, NULL);
	sites_expect_equal(a, b);
	assert_int_equal(site_kind(a, "d"), 0);
}

static void test_identical_copies(void **state)
{
	(void)state;
	with_seeds(10, 2, identical_copies);
}

/* --- modes and interlocks --- */

static void one_way(struct world *w)
{
	struct site *a = &w->sites[0], *b = &w->sites[1];
	const struct wire_options push = {.push = true}, pull = {.pull = true};
	bool pulls = w->seed & 1;
	char *before;
	char *after;

	site_mkdir(a, "d");
	site_write(a, "d/f", "of a");
	site_write(a, "both", "of a");
	site_write(b, "both", "of b");
	site_write(b, "only-b", "only of b");
	site_scan(a);
	before = site_tree(a);
	for (int i = 0; i < 2; i++)
		world_sync_with(w, pulls ? b : a, pulls ? a : b, pulls ? &pull : &push, 0, NULL);
	after = site_tree(a);
	assert_string_equal(before, after);
	free(after);
	assert_string_equal(site_read(b, "d/f"), "of a");
	assert_string_equal(site_read(b, "both"), "of a");
	assert_string_equal(site_read(b, "only-b"), "only of b");
	assert_int_equal(found(b, "of b", NULL), 1); /* the taker's version went aside */
	site_write(a, "d/f", "new of a");
	site_remove(a, "both");
	free(before);
	world_sync_with(w, pulls ? b : a, pulls ? a : b, pulls ? &pull : &push, 0, NULL);
	assert_string_equal(site_read(b, "d/f"), "new of a");
	assert_int_equal(site_kind(b, "both"), 0);
	assert_int_equal(site_kind(a, "only-b"), 0);
}

static void test_one_way(void **state)
{
	(void)state;
	with_seeds(10, 2, one_way);
}

static void held_deletions(struct world *w)
{
	struct site *a = &w->sites[0], *b = &w->sites[1];
	const struct wire_options confirmed = {.confirmed = true};
	struct wire was;
	char path[64];

	site_mkdir(a, "d");
	for (unsigned i = 0; i < 150; i++) {
		snprintf(path, sizeof(path), "d/f%u", i);
		site_write(a, path, path);
	}
	site_write(a, "other", "other");
	world_sync(w, a, b, NULL);
	for (unsigned i = 0; i < 150; i++) {
		snprintf(path, sizeof(path), "d/f%u", i);
		site_remove(a, path);
	}
	site_write(a, "other", "edited");
	site_scan(a);
	assert_int_equal(a->seen.held, 150);
	site_scan_confirmed(a, true);
	assert_int_equal(a->seen.deleted, 150);
	world_sync(w, a, b, &was);
	assert_false(was.end[0].status.in_sync);
	assert_int_equal(was.end[1].status.held, 150);
	assert_int_equal(was.end[0].status.peer_held, 150);
	assert_string_equal(site_read(b, "d/f149"), "d/f149");
	assert_string_equal(site_read(b, "other"), "edited"); /* the rest goes on */
	assert_int_equal(site_exceptions(b), 150);
	site_remove(b, "d/f0"); /* meanwhile */
	world_sync(w, b, a, &was);
	assert_int_equal(was.end[0].status.held, 149);
	world_sync_with(w, a, b, &confirmed, 0, &was);
	assert_true(was.end[0].status.in_sync);
	sites_expect_equal(a, b);
	assert_int_equal(site_kind(b, "d/f149"), 0);
	assert_int_equal(site_kind(b, "d"), 'd');
	assert_int_equal(site_exceptions(a) + site_exceptions(b), 0);
}

static void test_held_deletions(void **state)
{
	(void)state;
	with_seeds(3, 2, held_deletions);
}

/* A file stands where the directory was whose deletions are held: here as long as nobody confirms them, and then there. */
static void held_under_file(struct world *w)
{
	struct site *a = &w->sites[0], *b = &w->sites[1];
	const struct wire_options confirmed = {.confirmed = true};
	struct wire was;
	char path[64];
	unsigned copies = 0;

	site_mkdir(a, "d");
	for (unsigned i = 0; i < 150; i++) {
		snprintf(path, sizeof(path), "d/f%u", i);
		site_write(a, path, path);
	}
	site_write(a, "other", "other");
	world_sync(w, a, b, NULL);
	for (unsigned i = 0; i < 150; i++) {
		snprintf(path, sizeof(path), "d/f%u", i);
		site_remove(a, path);
	}
	site_remove(a, "d");
	site_write(a, "d", "a file now");
	site_scan(a);
	assert_int_equal(a->seen.held, 150);
	world_sync(w, a, b, &was);
	site_scan_confirmed(a, true);
	site_scan_confirmed(a, true);
	for (int i = 0; i < 2; i++)
		world_sync(w, a, b, &was);
	assert_string_equal(site_read(b, "d/f149"), "d/f149");
	assert_int_equal(site_kind(a, "d"), '-');
	world_sync_with(w, a, b, &confirmed, 0, &was);
	assert_true(was.end[0].status.in_sync);
	sites_expect_equal(a, b);
	assert_string_equal(site_read(b, "d"), "a file now");
	found(a, "a file now", &copies);
	assert_int_equal(copies, 0);
}

static void test_held_under_file(void **state)
{
	(void)state;
	with_seeds(3, 2, held_under_file);
}

/* --- ends that were not meant --- */

static void make_some(struct site *s, const char *mark)
{
	char path[64], text[80];

	site_mkdir(s, mark);
	for (unsigned i = 0; i < 12; i++) {
		snprintf(path, sizeof(path), "%s/%u", mark, i);
		snprintf(text, sizeof(text), "%s of %c", path, s->name);
		site_write(s, path, text);
	}
	snprintf(path, sizeof(path), "%s/big", mark);
	write_big(s, path, 150000, (uint64_t)s->name);
}

static uint64_t cut_length; /* bytes that the whole session takes */

static void cut(struct world *w)
{
	struct site *a = &w->sites[0], *b = &w->sites[1];
	struct wire was;

	make_some(a, "first");
	world_sync(w, a, b, NULL);
	make_some(a, "of-a");
	make_some(b, "of-b");
	site_write(a, "first/1", "edit of a");
	site_write(b, "first/1", "edit of b");
	site_remove(a, "first/2");
	site_rename(b, "first/3", "third");
	for (int i = 0; i < 3; i++)
		world_sync_with(w, a, b, NULL, cut_length ? 1 + world_below(w, cut_length) : 0, &was);
	if (!cut_length)
		cut_length = was.moved;
	world_sync(w, b, a, NULL);
	sites_expect_equal(a, b);
	assert_int_equal(found(a, "edit of a", NULL), 1);
	assert_int_equal(found(a, "edit of b", NULL), 1);
	assert_int_equal(site_kind(a, "first/3"), 0);
	assert_int_equal(site_kind(a, "first/2"), 0);
	assert_int_equal(site_kind(b, "first/2"), 0);
	assert_int_equal(site_exceptions(a) + site_exceptions(b), 0);
}

static void test_cut(void **state)
{
	(void)state;
	cut_length = 350000;
	with_seeds(10, 2, cut);
	cut_length = 12000; /* the handshake, the walk */
	with_seeds(6, 2, cut);
}

static void spoilt(struct world *w)
{
	struct site *a = &w->sites[0], *b = &w->sites[1];
	struct wire *wire;

	make_some(a, "first");
	world_sync(w, a, b, NULL);
	make_some(a, "of-a");
	make_some(b, "of-b");
	wire = wire_new(w, a, b, NULL);
	wire->spoil_at = 1 + world_below(w, world_one_in(w, 2) ? 3000 : 300000);
	world_run(w);
	for (int i = 0; i < 2; i++) /* a length that was spoilt may leave them waiting */
		session_tick(wire->end[i].session, clock_monotonic_ns() + SESSION_IDLE_NS + CLOCK_NS_PER_S);
	world_run(w);
	wire_note(wire);
	for (int i = 0; i < 2; i++) {
		assert_int_equal(wire->end[i].status.state, SESSION_ENDED);
		assert_true(wire->end[i].status.failed || wire->moved < wire->spoil_at);
		assert_true(!wire->end[i].status.failed || wire->end[i].text[0]);
	}
	wire_free(wire);
	world_sync(w, a, b, NULL);
	sites_expect_equal(a, b);
}

static void test_spoilt_bytes(void **state)
{
	(void)state;
	with_seeds(12, 2, spoilt);
}

static void stopped(struct world *w)
{
	struct site *a = &w->sites[0], *b = &w->sites[1];
	struct wire *wire;

	make_some(a, "of-a");
	wire = wire_new(w, a, b, NULL);
	session_fail(wire->end[w->seed & 1].session, MESSAGE_FAIL_BUSY, -EBUSY, "busy \033[2J");
	world_run(w);
	wire_note(wire);
	assert_true(wire->end[0].status.failed && wire->end[1].status.failed);
	assert_int_equal(wire->end[0].status.peer_code, MESSAGE_FAIL_BUSY);
	assert_int_equal(wire->end[1].status.peer_code, MESSAGE_FAIL_BUSY);
	assert_null(strchr(wire->end[!(w->seed & 1)].text, '\033'));
	assert_non_null(strstr(wire->end[!(w->seed & 1)].text, "busy"));
	wire_free(wire);
	world_sync(w, b, a, NULL);
	sites_expect_equal(a, b);
}

static void test_fail(void **state)
{
	(void)state;
	with_seeds(4, 2, stopped);
}

/* Who is left can tell that from a failure. */
static void ended_in_order(struct world *w)
{
	const struct wire_options live = {.live = true};
	struct wire *wire = wire_new(w, &w->sites[0], &w->sites[1], &live);
	int i = w->seed & 1;

	world_run(w);
	session_finish(wire->end[i].session);
	world_run(w);
	wire_note(wire);
	assert_false(wire->end[0].status.failed || wire->end[1].status.failed);
	assert_string_equal(wire->end[i].text, "");
	assert_non_null(strstr(wire->end[!i].text, "in order"));
	wire_free(wire);
}

static void test_end_in_order(void **state)
{
	(void)state;
	with_seeds(2, 2, ended_in_order);
}

/* --- first meetings --- */

static void expect_one_folder(struct world *w)
{
	for (size_t i = 0; i < w->n_sites; i++) {
		struct store *s = replica_store(w->sites[i].replica);

		if (store_folder_id(s) != store_folder_id(replica_store(w->sites[0].replica)))
			world_fail(w, "%c is in a folder of its own", w->sites[i].name);
		if (!store_joined(s))
			world_fail(w, "%c has not joined", w->sites[i].name);
	}
}

/* All pairs meet; they end in one folder, with all that any of them had. */
static void meet_all(struct world *w)
{
	for (int round = 0; round < 2; round++)
		for (size_t i = 0; i < w->n_sites; i++)
			for (size_t j = 0; j < w->n_sites; j++)
				if (i != j)
					world_sync(w, &w->sites[i], &w->sites[j], NULL);
	expect_one_folder(w);
	for (size_t i = 1; i < w->n_sites; i++)
		sites_expect_equal(&w->sites[0], &w->sites[i]);
	for (size_t i = 0; i < w->n_sites; i++)
		assert_int_equal(site_kind(&w->sites[0], (const char *[]){"of-a", "of-b", "of-c", "of-d"}[i]), '-');
}

static void make_one_each(struct world *w)
{
	for (size_t i = 0; i < w->n_sites; i++)
		site_write(&w->sites[i], (const char *[]){"of-a", "of-b", "of-c", "of-d"}[i], "x");
}

static void first_meeting(struct world *w)
{
	make_one_each(w);
	world_sync(w, &w->sites[w->seed & 1], &w->sites[!(w->seed & 1)], NULL);
	expect_one_folder(w);
	sites_expect_equal(&w->sites[0], &w->sites[1]);
}

static void all_meet_at_once(struct world *w)
{
	make_one_each(w);
	world_live(w, w->seed % 3 == 0);
	if (w->seed % 3)
		expect_one_folder(w);
	meet_all(w);
}

/* Whoever was left in the middle of it goes on with somebody else. */
static void first_meetings_cut(struct world *w)
{
	make_one_each(w);
	for (size_t n = 2 + world_below(w, 6); n--;) {
		size_t i = world_below(w, w->n_sites), j = (i + 1 + world_below(w, w->n_sites - 1)) % w->n_sites;

		world_sync_with(w, &w->sites[i], &w->sites[j], NULL, 1 + world_below(w, 1500), NULL);
		if (world_one_in(w, 4)) {
			site_close(&w->sites[i]);
			site_open(&w->sites[i]);
		}
	}
	meet_all(w);
}

static void test_first_meetings(void **state)
{
	(void)state;
	with_seeds(2, 2, first_meeting);
	with_seeds(12, 3, all_meet_at_once);
	with_seeds(6, 4, all_meet_at_once);
	with_seeds(80, 3, first_meetings_cut);
}

static void different_folders(struct world *w)
{
	struct site *a = &w->sites[0], *b = &w->sites[1], *c = &w->sites[2], *d = &w->sites[3];

	make_one_each(w);
	world_sync(w, a, b, NULL);
	world_sync(w, c, d, NULL);
	for (int i = 0; i < 4; i++) {
		struct wire *wire = wire_new(w, i & 1 ? a : d, i & 1 ? c : b, NULL);

		world_run(w);
		wire_note(wire);
		for (int j = 0; j < 2; j++) {
			assert_int_equal(wire->end[j].status.peer_code, MESSAGE_FAIL_FOLDER_ID);
			assert_non_null(strstr(wire->end[j].text, "different folders"));
		}
		wire_free(wire);
		world_sync(w, a, b, NULL);
		world_sync(w, c, d, NULL);
	}
	assert_int_equal(site_kind(a, "of-c"), 0);
	assert_int_equal(site_kind(d, "of-b"), 0);
}

static void test_different_folders(void **state)
{
	(void)state;
	with_seeds(3, 4, different_folders);
}

/* --- hostile peers --- */

/* Whatever the two end in; after two minutes of silence at the latest. What was going on is given up. */
static void run_to_end(struct world *w, struct wire *wire)
{
	world_run(w);
	for (int i = 0; i < 2; i++)
		session_tick(wire->end[i].session, clock_monotonic_ns() + SESSION_IDLE_NS + CLOCK_NS_PER_S);
	world_run(w);
	wire_note(wire);
	for (int i = 0; i < 2; i++) {
		if (wire->end[i].status.state != SESSION_ENDED)
			world_fail(w, "%c goes on in state %d", wire->end[i].site->name, (int)wire->end[i].status.state);
		if (wire->end[i].status.failed && !wire->end[i].text[0])
			world_fail(w, "%c does not say why it ended", wire->end[i].site->name);
	}
}

static void feed_frame(struct session *s, struct frame_writer *writer, struct buf *out, uint8_t type, const union message *m)
{
	struct buf payload = BUF_INIT;

	assert_int_equal(message_encode(type, m, &payload), 0);
	assert_int_equal(frame_write(writer, out, type, payload.data, payload.len, false), 0);
	buf_deinit(&payload);
	session_input(s, out->data, out->len);
	buf_clear(out);
}

/* Which messages may come in which state of a server; anything else ends the session. */
static void out_of_place(struct world *w)
{
	struct sample sample = {w->seed};

	for (int opened = 0; opened < 2; opened++)
		for (uint8_t type = 1; type < MESSAGE_TYPES; type++) {
			struct wire *wire = wire_new(w, &w->sites[0], &w->sites[1], NULL);
			struct end *server = &wire->end[1];
			struct frame_writer *writer;
			struct buf out = BUF_INIT;
			bool fits = type == MESSAGE_OPEN ? !opened
						 : type == MESSAGE_GREET ? opened
									 : type == MESSAGE_KEEPALIVE || type == MESSAGE_BYE;
			union message m;

			assert_int_equal(frame_writer_new(&writer, 1), 0);
			frame_put_preface(&out);
			sample_message(&sample, MESSAGE_OPEN, &m);
			if (opened)
				feed_frame(server->session, writer, &out, MESSAGE_OPEN, &m);
			message_deinit(MESSAGE_OPEN, &m);
			sample_message(&sample, type, &m);
			feed_frame(server->session, writer, &out, type, &m);
			message_deinit(type, &m);
			session_status(server->session, &server->status);
			if (fits == server->status.failed)
				world_fail(w, "%s %s OPEN: %s", message_info(type)->name, opened ? "after" : "before",
					fits ? server->status.text : "it was taken");
			if (type != MESSAGE_FAIL && server->status.failed)
				assert_int_equal(server->status.error, -EBADMSG);
			wire_cut(wire);
			world_run(w);
			frame_writer_free(writer);
			buf_deinit(&out);
			wire_free(wire);
		}
}

static void test_out_of_place(void **state)
{
	(void)state;
	with_seeds(2, 2, out_of_place);
}

/* Keepalives are no greeting. */
static void only_keepalive(struct world *w)
{
	const union message none = {0};
	struct wire *wire = wire_new(w, &w->sites[0], &w->sites[1], NULL);
	struct end *e = &wire->end[w->seed & 1];
	int64_t now = clock_monotonic_ns();
	struct frame_writer *writer;
	struct buf out = BUF_INIT;

	assert_int_equal(frame_writer_new(&writer, 1), 0);
	frame_put_preface(&out);
	for (int minutes = 0; minutes < 5 && end_state(e) != SESSION_ENDED; minutes++) {
		feed_frame(e->session, writer, &out, MESSAGE_KEEPALIVE, &none);
		now += 60 * CLOCK_NS_PER_S;
		session_tick(e->session, now);
	}
	session_status(e->session, &e->status);
	assert_int_equal(e->status.state, SESSION_ENDED);
	assert_int_equal(e->status.error, -ETIMEDOUT);
	wire_cut(wire);
	world_run(w);
	frame_writer_free(writer);
	buf_deinit(&out);
	wire_free(wire);
}

/* A scan may take its time. */
static void long_scan(struct world *w)
{
	struct wire *wire = wire_new(w, &w->sites[0], &w->sites[1], NULL);
	int64_t now = clock_monotonic_ns();

	for (unsigned steps = 0; steps < 100000 && (!wire->end[0].greeted || !wire->end[1].greeted); steps++) {
		size_t what = world_below(w, WIRE_STEPS);

		if (what >> 1 != 11 || wire->end[what & 1].opened) /* no scan yet */
			wire_step(wire, what);
	}
	for (int minutes = 0; minutes < 10; minutes++) {
		now += 60 * CLOCK_NS_PER_S;
		for (int i = 0; i < 2; i++) {
			session_tick(wire->end[i].session, now);
			while (move_to_pipe(wire, i) || move_to_peer(wire, i))
				;
			assert_int_equal(end_state(&wire->end[i]), SESSION_PREPARING);
		}
	}
	world_run(w);
	wire_note(wire);
	assert_false(wire->end[0].status.failed || wire->end[1].status.failed);
	wire_free(wire);
}

static void test_time_to_greet(void **state)
{
	(void)state;
	with_seeds(2, 2, only_keepalive);
	with_seeds(2, 2, long_scan);
}

static void garbage(struct world *w)
{
	static const char *const words[] = {"SSH-2.0-OpenSSH_9.2p1", "bash: syncctl: command not found\n", "syncd", "syncd\0\40\41", ""};
	struct wire *wire = wire_new(w, &w->sites[0], &w->sites[1], NULL);
	struct end *server = &wire->end[1];
	char bytes[200];
	size_t n = sizeof(bytes), word = w->seed % 5;

	sample_bytes(&(struct sample){w->seed}, bytes, sizeof(bytes));
	memcpy(bytes, words[word], word == 3 ? 8 : strlen(words[word]));
	session_input(server->session, bytes, n);
	session_status(server->session, &server->status);
	assert_true(server->status.failed);
	assert_true(server->status.error == (word == 3 ? -EPROTONOSUPPORT : -EPROTO));
	assert_true(strlen(server->status.text) > 20);
	wire_cut(wire);
	world_run(w);
	wire_free(wire);
}

static void test_garbage(void **state)
{
	(void)state;
	with_seeds(10, 2, garbage);
}

#define REMEMBERED 64

static struct remembered {
	uint8_t type;
	struct buf payload;
} remembered[REMEMBERED];
static unsigned tamper_one_in;

static void forget_remembered(void)
{
	for (size_t i = 0; i < REMEMBERED; i++)
		buf_deinit(&remembered[i].payload);
}

static void say(struct wire *wire, int i, uint8_t type, const uint8_t *p, size_t n)
{
	if (n <= message_max_bytes(type))
		(void)frame_write(wire->writer[i], &wire->pipe[i], type, p, n, world_one_in(wire->world, 2));
}

static void say_sample(struct wire *wire, int i, uint8_t type)
{
	struct sample sample = {test_random(&wire->world->random)};
	struct buf b = BUF_INIT;
	union message m;

	sample_message(&sample, type, &m);
	if (message_encode(type, &m, &b) == 0)
		say(wire, i, type, b.data, b.len);
	message_deinit(type, &m);
	buf_deinit(&b);
}

static void say_damaged(struct wire *wire, int i, uint8_t type, const uint8_t *p, size_t n)
{
	struct buf b = BUF_INIT;

	put_bytes(&b, p, n);
	for (size_t k = 1 + world_below(wire->world, 3); k-- && n;)
		b.data[world_below(wire->world, n)] = (uint8_t)world_below(wire->world, 256);
	say(wire, i, type, b.data, b.len);
	buf_deinit(&b);
}

static void tamper(struct wire *wire, int i, uint8_t type, const uint8_t *p, size_t n)
{
	struct world *w = wire->world;
	struct remembered *r = &remembered[world_below(w, REMEMBERED)];

	if (!world_one_in(w, tamper_one_in)) {
		say(wire, i, type, p, n);
	} else {
		switch (world_below(w, 6)) {
		case 0: /* never said */
			break;
		case 1: /* said twice */
			say(wire, i, type, p, n);
			say(wire, i, type, p, n);
			break;
		case 2:
			say_sample(wire, i, world_one_in(w, 2) ? type : (uint8_t)(1 + world_below(w, MESSAGE_TYPES - 1)));
			break;
		case 3: /* something said before, by whomever */
			if (r->type)
				say(wire, i, r->type, r->payload.data, r->payload.len);
			say(wire, i, type, p, n);
			break;
		default:
			say_damaged(wire, i, type, p, n);
			break;
		}
	}
	r->type = type;
	buf_clear(&r->payload);
	put_bytes(&r->payload, p, n);
}

/* The side that does not walk says that it has, as soon as it can. */
static void walked_by_other(struct wire *wire, int i, uint8_t type, const uint8_t *p, size_t n)
{
	const union message walked = {.walked = {.round = 1}};
	struct buf b = BUF_INIT;

	say(wire, i, type, p, n);
	if (type != MESSAGE_HELLO || store_replica_id(replica_store(wire->end[i].site->replica)) >
					     store_replica_id(replica_store(wire->end[!i].site->replica)))
		return;
	assert_int_equal(message_encode(MESSAGE_WALKED, &walked, &b), 0);
	say(wire, i, MESSAGE_WALKED, b.data, b.len);
	buf_deinit(&b);
}

static void who_walks(struct world *w)
{
	struct site *a = &w->sites[0], *b = &w->sites[1];
	struct wire *wire;

	make_some(a, "of-a");
	make_some(b, "of-b");
	wire = wire_new(w, a, b, NULL);
	wire_tamper(wire, walked_by_other);
	run_to_end(w, wire);
	assert_true(wire->end[0].status.failed && wire->end[1].status.failed);
	assert_non_null(strstr(wire->end[store_replica_id(replica_store(b->replica)) > store_replica_id(replica_store(a->replica))].text,
		"WALKED out of place"));
	wire_free(wire);
}

static void test_only_the_walker_has_walked(void **state)
{
	(void)state;
	with_seeds(6, 2, who_walks);
}

/* Sums of all files' contents of a tree, to see that nothing is put in place that nobody had. */
static size_t sums_of(struct site *s, uint64_t *ret, size_t max)
{
	char *argv[] = {s->root, NULL};
	FTS *fts = fts_open(argv, FTS_PHYSICAL | FTS_NOCHDIR, NULL);
	size_t n = 0;
	FTSENT *e;

	while ((e = fts_read(fts))) {
		if (e->fts_level == 1 && strcmp(e->fts_name, ".syncd") == 0)
			fts_set(fts, e, FTS_SKIP);
		else if (e->fts_info == FTS_F && n < max)
			ret[n++] = world_sum_of(e->fts_path);
	}
	fts_close(fts);
	return n;
}

static void hostile(struct world *w)
{
	struct site *a = &w->sites[0], *b = &w->sites[1];
	uint64_t before[200], after[200];
	struct wire *wire;
	size_t n, m;

	make_some(a, "first");
	if (w->seed % 4) /* else it is their first meeting, too */
		world_sync(w, a, b, NULL);
	else
		make_some(b, "first");
	make_some(a, "of-a");
	make_some(b, "of-b");
	site_write(a, "first/1", "edit of a");
	site_write(b, "first/1", "edit of b");
	site_remove(a, "first/2");
	n = sums_of(a, before, 100);
	n += sums_of(b, before + n, 100);
	tamper_one_in = (unsigned[]){3, 8, 25}[world_below(w, 3)];
	for (int i = 0; i < 3; i++) {
		wire = wire_new(w, a, b, NULL);
		wire_tamper(wire, tamper);
		run_to_end(w, wire);
		wire_free(wire);
		site_expect_tidy(a);
		site_expect_tidy(b);
	}
	forget_remembered();
	for (int i = 0; i < 2; i++) {
		m = sums_of(i ? b : a, after, 200);
		while (m--) {
			size_t k = 0;

			while (k < n && before[k] != after[m])
				k++;
			if (k == n)
				world_fail(w, "%c has content that nobody had", i ? 'b' : 'a');
		}
	}
}

static void test_hostile_peer(void **state)
{
	(void)state;
	with_seeds(20, 2, hostile);
}

/* --- copies that never met --- */

/* Copies that were made by other means: the same times. */
static void write_at(struct site *s, const char *path, int64_t seconds)
{
	struct timespec times[2] = {{.tv_nsec = UTIME_OMIT}, {.tv_sec = seconds}};

	site_write(s, path, path);
	utimensat(AT_FDCWD, site_at(s, path), times, 0);
}

static void make_copy(struct site *s, unsigned n)
{
	char path[64];

	for (unsigned i = 0; i < n; i++) {
		snprintf(path, sizeof(path), "d%u", i / 100);
		if (i % 100 == 0)
			site_mkdir(s, path);
		snprintf(path, sizeof(path), "d%u/file-%u", i / 100, i);
		write_at(s, path, 1400000000 + i);
	}
}

static void expect_paired(struct world *w, uint64_t bytes_max, struct wire *was)
{
	struct site *a = &w->sites[0], *b = &w->sites[1];
	struct wire again;

	world_sync(w, w->seed & 1 ? a : b, w->seed & 1 ? b : a, was);
	sites_expect_equal(a, b);
	if (was->moved > bytes_max)
		world_fail(w, "%" PRIu64 " bytes", was->moved);
	assert_int_equal(site_exceptions(a) + site_exceptions(b), 0);
	world_sync(w, a, b, &again);
	assert_int_equal(again.end[0].status.round, 1);
}

static void paired(struct world *w)
{
	struct site *a = &w->sites[0], *b = &w->sites[1];
	struct wire was;

	make_copy(a, 1000);
	make_copy(b, 1000);
	expect_paired(w, 2000 + 3 * 1010, &was);
	assert_int_equal(was.end[0].status.content_in + was.end[1].status.content_in, 0);
	assert_int_equal(was.end[0].status.conflicts + was.end[1].status.conflicts, 0);
	/* each knows what the other counted: deletions are deletions, and edits edits */
	site_remove(a, "d3/file-311");
	site_write(b, "d3/file-312", "an edit");
	world_sync(w, a, b, NULL);
	sites_expect_equal(a, b);
	assert_int_equal(site_kind(b, "d3/file-311"), 0);
	assert_string_equal(site_read(a, "d3/file-312"), "an edit");
}

static void test_paired(void **state)
{
	(void)state;
	with_seeds(2, 2, paired);
}

/* Here and there they are different. */
static void paired_but_for(struct world *w)
{
	struct site *a = &w->sites[0], *b = &w->sites[1];
	struct wire was;
	char path[64];

	make_copy(a, 400);
	make_copy(b, 400);
	for (unsigned i = 0; i < 6; i++) {
		struct site *s = world_one_in(w, 2) ? a : b;
		unsigned k = (unsigned)world_below(w, 400);

		snprintf(path, sizeof(path), "d%u/file-%u%s", k / 100, k, i % 3 == 2 ? "-new" : "");
		if (i % 3 == 1)
			site_remove(s, path);
		else
			write_at(s, path, 1300000000 + i);
		if (i % 3 == 0)
			chmod(site_at(s, path), 0600);
	}
	expect_paired(w, 30000, &was);
	assert_int_equal(was.end[0].status.conflicts + was.end[1].status.conflicts, 0);
}

static void test_paired_but_for(void **state)
{
	(void)state;
	with_seeds(8, 2, paired_but_for);
}

static struct world *meddled;

/* Between MATCH and MATCHED the walker's rows change, or both sides' do. */
static void meddle_with_match(struct wire *wire, int i, uint8_t type, const uint8_t *p, size_t n)
{
	static const char *const edits[] = {"d2/file-250", "d0/file-0", "d2/file-299"};
	bool due = type == MESSAGE_MATCH || type == MESSAGE_MATCHED;

	say(wire, i, type, p, n);
	for (size_t k = 0; due && k < ARRAY_SIZE(edits); k++) {
		struct site *s = wire->end[world_below(meddled, 2)].site;

		if (world_one_in(meddled, 2))
			site_write(s, edits[k], world_one_in(meddled, 2) ? "one" : "another");
		else
			site_remove(s, edits[k]);
		site_scan(s);
	}
}

static void paired_meanwhile(struct world *w)
{
	struct site *a = &w->sites[0], *b = &w->sites[1];
	struct wire *wire;

	make_copy(a, 300);
	make_copy(b, 300);
	meddled = w;
	wire = wire_new(w, a, b, NULL);
	wire_tamper(wire, meddle_with_match);
	run_to_end(w, wire);
	assert_false(wire->end[0].status.failed || wire->end[1].status.failed);
	wire_free(wire);
	for (int i = 0; i < 2; i++)
		world_sync(w, a, b, NULL);
	sites_expect_equal(a, b);
}

static void test_paired_meanwhile(void **state)
{
	(void)state;
	with_seeds(8, 2, paired_meanwhile);
}

/* Versions that the peer says are equal, and are of something else. */
static void hostile_match(struct wire *wire, int i, uint8_t type, const uint8_t *p, size_t n)
{
	struct buf b = BUF_INIT;
	union message m;

	if (type != MESSAGE_MATCH && type != MESSAGE_MATCHED) {
		say(wire, i, type, p, n);
		return;
	}
	assert_int_equal(message_decode(type, p, n, &m), 0);
	for (size_t k = 0; k < m.match.n_groups; k++) {
		struct message_group *g = &m.match.groups[k];

		switch (world_below(wire->world, 6)) {
		case 0:
			g->separator = test_random(&wire->world->random);
			break;
		case 1: /* of another group */
			if (k && g->n && m.match.groups[k - 1].n >= g->n)
				memcpy(g->versions, m.match.groups[k - 1].versions, g->n);
			break;
		case 2:
			if (g->n)
				g->versions[world_below(wire->world, g->n)] ^= (uint8_t)(1 << world_below(wire->world, 8));
			break;
		case 3:
			g->n = g->n ? world_below(wire->world, g->n) : 0;
			break;
		}
	}
	assert_int_equal(message_encode(type, &m, &b), 0);
	say(wire, i, type, b.data, b.len);
	message_deinit(type, &m);
	buf_deinit(&b);
}

static void paired_with_a_liar(struct world *w)
{
	struct site *a = &w->sites[0], *b = &w->sites[1];
	struct wire *wire;

	make_copy(a, 200);
	make_copy(b, 200);
	for (int i = 0; i < 2; i++) {
		wire = wire_new(w, a, b, NULL);
		wire_tamper(wire, hostile_match);
		run_to_end(w, wire);
		wire_free(wire);
		site_expect_tidy(a);
		site_expect_tidy(b);
	}
	assert_string_equal(site_read(a, "d0/file-7"), "d0/file-7"); /* a lie deletes nothing, and puts nothing in place */
	assert_string_equal(site_read(b, "d1/file-199"), "d1/file-199");
}

static void test_paired_with_a_liar(void **state)
{
	(void)state;
	with_seeds(20, 2, paired_with_a_liar);
}

/* --- pieces --- */

static unsigned n_data, n_pieces;

static void count_pieces(struct wire *wire, int i, uint8_t type, const uint8_t *p, size_t n)
{
	n_data += type == MESSAGE_DATA || type == MESSAGE_BULK;
	n_pieces += type == MESSAGE_PIECES;
	say(wire, i, type, p, n);
}

/* Bytes of literals are other ones: what is put together is not the chunk. */
static void wrong_pieces(struct wire *wire, int i, uint8_t type, const uint8_t *p, size_t n)
{
	struct buf b = BUF_INIT;

	put_bytes(&b, p, n);
	if (type == MESSAGE_PIECES)
		b.data[n - 3 - world_below(wire->world, 16)] ^= 1;
	count_pieces(wire, i, type, b.data, n);
	buf_deinit(&b);
}

/* They refer to names that were not said. */
static void wild_pieces(struct wire *wire, int i, uint8_t type, const uint8_t *p, size_t n)
{
	union message m;
	struct buf b = BUF_INIT;

	if (type == MESSAGE_PIECES) {
		assert_int_equal(message_decode(type, p, n, &m), 0);
		m.pieces.bytes = (const uint8_t *)"\x03\xa0\x1f"; /* one piece: the 2,000th */
		m.pieces.n = 3;
		assert_int_equal(message_encode(type, &m, &b), 0);
		p = b.data;
		n = b.len;
	}
	count_pieces(wire, i, type, p, n);
	buf_deinit(&b);
}

/* a edits; what b then has, and how it was told, is to be looked at by the caller. */
static void sync_through(struct world *w, void (*through)(struct wire *wire, int i, uint8_t type, const uint8_t *p, size_t n),
	const struct wire_options *options, struct end *ret)
{
	struct wire *wire = wire_new(w, &w->sites[0], &w->sites[1], options);

	n_data = n_pieces = 0;
	wire_tamper(wire, through);
	run_to_end(w, wire);
	*ret = wire->end[1];
	wire_free(wire);
}

static void pieces(struct world *w)
{
	struct site *a = &w->sites[0], *b = &w->sites[1];
	size_t n = w->seed & 1 ? 30000 : 3000000, at = world_below(w, n - 100);
	uint8_t *bytes = malloc(n + 100);
	struct end was;

	fill(bytes, n + 100, w->seed);
	site_write_bytes(a, "file", bytes, n);
	world_sync(w, a, b, NULL);
	memmove(bytes + at + 7, bytes + at, n - at); /* bytes in between */
	site_write_bytes(a, "file", bytes, n + 7);
	sync_through(w, count_pieces, NULL, &was);
	sites_expect_equal(a, b);
	assert_true(n_pieces > 0 && n_data == 0 && was.status.content_in < 4096);
	/* a wrong answer costs a chunk */
	bytes[at] ^= 0x55;
	site_write_bytes(a, "file", bytes, n + 7);
	sync_through(w, wrong_pieces, NULL, &was);
	sites_expect_equal(a, b);
	assert_true(n_pieces == 1 && n_data > 0 && !was.status.failed && was.status.round == 1);
	/* the old version is not what the index says */
	bytes[at / 2] ^= 0x55;
	site_write_bytes(a, "file", bytes, n + 7);
	site_write(b, "file", "of b");
	sync_through(w, count_pieces, NULL, &was);
	assert_false(was.status.failed);
	world_sync(w, a, b, NULL);
	sites_expect_equal(a, b);
	/* an answer that can't be one */
	site_write_bytes(a, "file", bytes, n);
	world_sync(w, a, b, NULL);
	bytes[at / 3] ^= 0x55;
	site_write_bytes(a, "file", bytes, n);
	sync_through(w, wild_pieces, NULL, &was);
	assert_true(was.status.failed && n_pieces == 1);
	assert_non_null(strstr(was.text, "PIECES that refer to nothing"));
	free(bytes);
}

static void test_pieces(void **state)
{
	(void)state;
	with_seeds(4, 2, pieces);
}

/* What did not come from a peer is not shown to it where it gets nothing from us, not even by names. */
static void pieces_of_ours(struct world *w)
{
	struct site *a = &w->sites[0], *b = &w->sites[1];
	const struct wire_options push = {.push = true};
	struct end was;
	uint8_t bytes[20000];

	fill(bytes, sizeof(bytes), w->seed);
	site_write_bytes(b, "file", bytes, sizeof(bytes));
	world_sync(w, a, b, NULL);
	for (int i = 0; i < 2; i++) {
		bytes[10000] ^= 0x55;
		site_write_bytes(a, "file", bytes, sizeof(bytes) - (size_t)i);
		sync_through(w, count_pieces, &push, &was);
		sites_expect_equal(a, b);
		assert_int_equal(n_pieces, i); /* the second time it is a's that is here */
		assert_int_equal(n_data, !i);
	}
}

static void test_pieces_of_ours(void **state)
{
	(void)state;
	with_seeds(2, 2, pieces_of_ours);
}

/* --- nodes told with names --- */

static unsigned asked_plainly, asked_named;
static size_t told_bytes;

static void count_nodes(struct wire *wire, int i, uint8_t type, const uint8_t *p, size_t n)
{
	asked_plainly += type == MESSAGE_NODES_ASK;
	asked_named += type == MESSAGE_NODES_NAMED;
	told_bytes += type == MESSAGE_NODES_TOLD ? n : 0;
	say(wire, i, type, p, n);
}

/* Each tells something else. */
static void wrong_nodes(struct wire *wire, int i, uint8_t type, const uint8_t *p, size_t n)
{
	union message m;
	struct buf b = BUF_INIT;

	if (type == MESSAGE_NODES_TOLD) {
		assert_int_equal(message_decode(type, p, n, &m), 0);
		for (size_t k = 0; k < m.nodes.n; k++)
			m.nodes.v[k].payload[world_below(wire->world, m.nodes.v[k].n)] ^= 1;
		assert_int_equal(message_encode(type, &m, &b), 0);
		message_deinit(type, &m);
		p = b.data;
		n = b.len;
	}
	count_nodes(wire, i, type, p, n);
	buf_deinit(&b);
}

/* What was not named is told with names. */
static void told_unasked(struct wire *wire, int i, uint8_t type, const uint8_t *p, size_t n)
{
	count_nodes(wire, i, type == MESSAGE_NODES ? MESSAGE_NODES_TOLD : type,
		type == MESSAGE_NODES ? (const uint8_t *)"\0\0\0\0\1\2\1\1\1\1" : p, type == MESSAGE_NODES ? 10 : n);
}

static void sync_nodes(struct world *w, void (*through)(struct wire *wire, int i, uint8_t type, const uint8_t *p, size_t n), uint8_t version,
	bool push, struct end *ret)
{
	struct wire *wire = wire_new(w, &w->sites[0], &w->sites[1], &(struct wire_options){.push = push});

	asked_plainly = asked_named = 0;
	told_bytes = 0;
	wire_tamper(wire, through);
	for (int i = 0; i < 2; i++)
		wire->pipe[i].data[FRAME_PREFACE_BYTES - 1] = version;
	run_to_end(w, wire);
	*ret = wire->end[1];
	wire_free(wire);
	assert_false(ret->status.failed);
	sites_expect_equal(&w->sites[0], &w->sites[1]);
}

static void nodes_told(struct world *w)
{
	enum { N = 3000000 };
	struct site *a = &w->sites[0], *b = &w->sites[1];
	size_t at = world_below(w, N - 100000), n = N;
	uint8_t *bytes = malloc(N + 100000);
	struct end was;

	fill(bytes, N + 100000, w->seed);
	site_write_bytes(a, "file", bytes, n);
	world_sync(w, a, b, NULL);
	for (int i = 0; i < 4; i++) { /* in place; a byte in between; more than a node spans; and less again */
		static const size_t sizes[] = {N, N + 1, N + 90000, N - 5000};

		memmove(bytes + at + 8, bytes + at + 7, sizes[i] > n ? n - at : 1);
		n = sizes[i];
		site_write_bytes(a, "file", bytes, n);
		sync_nodes(w, count_nodes, FRAME_VERSION_MAX, false, &was);
		assert_true(asked_plainly == 0 && asked_named > 0 && told_bytes > 0 && told_bytes < 3000);
	}
	/* another answer than the one is as good as none */
	bytes[at] ^= 0x55;
	site_write_bytes(a, "file", bytes, n);
	sync_nodes(w, wrong_nodes, FRAME_VERSION_MAX, false, &was);
	assert_true(asked_plainly > 0 && asked_plainly == asked_named && was.status.round == 1);
	/* who does not know it is asked_plainly, and answered, as before */
	bytes[at] ^= 0x55;
	site_write_bytes(a, "file", bytes, n);
	sync_nodes(w, count_nodes, FRAME_VERSION_TOLD - 1, false, &was);
	assert_true(asked_plainly > 0 && asked_named == 0 && told_bytes == 0);
	/* what did not come from a peer is not shown to it where it gets nothing from us */
	site_write_bytes(b, "file", bytes, n - 1);
	world_sync(w, a, b, NULL);
	for (int i = 0; i < 2; i++) {
		bytes[at] ^= 0x55;
		site_write_bytes(a, "file", bytes, n);
		sync_nodes(w, count_nodes, FRAME_VERSION_MAX, true, &was);
		assert_true(i ? asked_plainly == 0 && asked_named > 0 : asked_plainly > 0 && asked_named == 0);
	}
	free(bytes);
}

static void test_nodes_told(void **state)
{
	(void)state;
	with_seeds(6, 2, nodes_told);
}

/* Names that nobody gave. */
static void nodes_told_unasked(struct world *w)
{
	struct wire *wire;
	uint8_t *bytes = malloc(300000);

	fill(bytes, 300000, w->seed);
	site_write_bytes(&w->sites[0], "file", bytes, 300000);
	wire = wire_new(w, &w->sites[0], &w->sites[1], NULL);
	wire_tamper(wire, told_unasked);
	run_to_end(w, wire);
	assert_true(wire->end[1].status.failed);
	assert_non_null(strstr(wire->end[1].text, "that nobody"));
	wire_free(wire);
	free(bytes);
}

static void test_nodes_told_unasked(void **state)
{
	(void)state;
	with_seeds(2, 2, nodes_told_unasked);
}

/* Site s says, and believes, that it has this. */
static void set_content(struct site *s, const char *path, const struct content *content)
{
	cleanup(row_deinit) struct row row = {0};
	struct index_txn *t = NULL;

	replica_lock(s->replica);
	assert_int_equal(index_begin_write(replica_index(s->replica), &t), 0);
	assert_int_equal(index_get(t, path, &row), 0);
	row.record.content = *content;
	row.recorded_ns += 3600 * CLOCK_NS_PER_S; /* old enough to be trusted by scans */
	assert_int_equal(index_put(t, path, &row), 0);
	assert_int_equal(index_commit(&t), 0);
	replica_unlock(s->replica);
}

static int put_node(const struct hash *hash, uint8_t level, const void *payload, size_t n, void *data)
{
	return index_node_put(data, hash, level, payload, n);
}

/* … a file of n times the same chunk of 4 MiB. */
static void announce_bomb(struct site *s, const char *path, size_t n, struct content *ret)
{
	struct chunk chunk = {.length = CHUNK_BYTES_MAX};
	struct chunk_tree_builder *b;
	struct index_txn *t = NULL;

	site_write(s, path, path);
	site_scan(s);
	replica_lock(s->replica);
	assert_int_equal(index_begin_write(replica_index(s->replica), &t), 0);
	assert_int_equal(chunk_tree_builder_new(&b, store_algorithm(replica_store(s->replica)), put_node, t), 0);
	memset(chunk.hash.bytes, 1, sizeof(chunk.hash.bytes)); /* ends no node */
	for (size_t i = 0; i < n; i++, chunk.offset += chunk.length)
		assert_int_equal(chunk_tree_builder_add(b, &chunk), 0);
	assert_int_equal(chunk_tree_builder_finish(b, ret), 0);
	chunk_tree_builder_free(b);
	ret->chunk_bits = CHUNK_BITS_MAX;
	assert_int_equal(index_commit(&t), 0);
	replica_unlock(s->replica);
	set_content(s, path, ret);
}

static void expect_refused(struct world *w, uint64_t moved_max)
{
	struct site *a = &w->sites[0], *b = &w->sites[1];
	struct wire *wire = wire_new(w, a, b, NULL);

	run_to_end(w, wire);
	assert_false(wire->end[0].status.failed || wire->end[1].status.failed);
	assert_true(wire->end[1].told[APPLY_FAILED] > 0);
	assert_true(wire->end[1].status.content_in <= strlen("good"));
	assert_true(wire->moved < moved_max);
	assert_int_equal(site_kind(b, "bomb"), 0);
	assert_string_equal(site_read(b, "good"), "good"); /* the rest goes on */
	wire_free(wire);
	site_expect_tidy(b);
}

static int seen_in_trash(const struct trash_entry *e, void *data)
{
	(void)data;
	return strcmp(e->path, "gone") == 0;
}

/* Few bytes of a peer that stand for very many: refused before any of them is asked for, and nothing is thrown out of trash. */
static void bombs(struct world *w)
{
	struct site *a = &w->sites[0], *b = &w->sites[1];
	uint64_t available, total;
	struct content bomb, lie;

	site_write(b, "gone", "is wanted back");
	world_sync(w, a, b, NULL);
	site_remove(a, "gone");
	world_sync(w, a, b, NULL); /* to trash, at b */
	site_write(a, "good", "good");
	assert_int_equal(file_space(store_staging(replica_store(b->replica)), &available, &total), 0);
	announce_bomb(a, "bomb", 65536, &bomb);
	assert_int_equal(bomb.size, UINT64_C(256) << 30);
	for (int i = 0; i < 4; i++) /* more than may be under way at once */
		announce_bomb(a, (const char *[]){"bomb-1", "bomb-2", "bomb-3", "bomb-4"}[i], 65536, &bomb);
	assert_true(5 * chunk_count_max(bomb.size, bomb.chunk_bits) > SESSION_CHUNKS_MAX);
	if (total < bomb.size)
		expect_refused(w, 5 << 22);
	for (int i = 0; i < 4; i++)
		site_remove(a, (const char *[]){"bomb-1", "bomb-2", "bomb-3", "bomb-4"}[i]);
	site_scan(a);
	lie = bomb;
	lie.size = (uint64_t)SESSION_CHUNKS_MAX * CHUNK_BYTES_MAX + CHUNK_BYTES_MAX; /* of too many chunks at the least */
	set_content(a, "bomb", &lie);
	expect_refused(w, 100000);
	lie = bomb;
	lie.chunk_bits = CHUNK_BITS_MIN; /* cut finer than any file of that size is */
	set_content(a, "bomb", &lie);
	expect_refused(w, 100000);
	assert_int_equal(trash_list(replica_store(b->replica), seen_in_trash, NULL), 1);
}

static void test_bombs(void **state)
{
	(void)state;
	with_seeds(1, 2, bombs);
}

/* --- three replicas --- */

static void implied(struct world *w)
{
	struct site *a = &w->sites[0], *b = &w->sites[1];

	site_mkdir(a, "d");
	site_write(a, "d/old", "old");
	world_sync(w, a, b, NULL);
	site_remove(a, "d");
	site_write(b, "d/new", "new");
	world_sync(w, a, b, NULL);
	world_sync(w, b, a, NULL);
	sites_expect_equal(a, b);
	assert_string_equal(site_read(a, "d/new"), "new");
	/* the directory is there for its child only, on both, and goes with it */
	site_remove(w->seed & 1 ? a : b, "d/new");
	world_sync(w, a, b, NULL);
	sites_expect_equal(a, b);
	assert_int_equal(site_kind(a, "d"), 0);
	assert_int_equal(site_kind(b, "d"), 0);
}

static void test_implied_directory(void **state)
{
	(void)state;
	with_seeds(6, 2, implied);
}

/* What was skipped here is not taken for deleted there. */
static void skipped_is_not_deleted(struct world *w)
{
	struct site *a = &w->sites[0], *b = &w->sites[1];
	struct wire *wire;

	site_write(a, "z", "z");
	world_sync(w, a, b, NULL);
	site_mkdir(a, "p");
	site_write(a, "p/q", "below");
	site_scan(a);
	wire = wire_new(w, a, b, NULL);
	for (unsigned steps = 0; site_kind(b, "p") == 0 && steps < 100000; steps++) { /* in the way, once b has been scanned */
		wire_step(wire, world_below(w, WIRE_STEPS));
		if (end_state(&wire->end[1]) == SESSION_ROUND)
			site_write(b, "p", "a file of b");
	}
	world_run(w);
	wire_free(wire);
	for (int i = 0; i < 2; i++)
		world_sync(w, b, a, NULL);
	sites_expect_equal(a, b);
	assert_int_equal(found(a, "below", NULL), 1);
	assert_int_equal(found(a, "a file of b", NULL), 1);
}

static void test_skipped_is_not_deleted(void **state)
{
	(void)state;
	with_seeds(20, 2, skipped_is_not_deleted);
}

/* What is there by now has the recorded mtime; its stamp is the record's, which is old enough to be trusted. */
static void forge_stamp(struct site *s, const char *path)
{
	struct timespec times[2] = {{.tv_nsec = UTIME_OMIT}};
	struct row row = {0};
	struct replica_txn t;
	struct file_stat st;

	replica_lock(s->replica);
	assert_int_equal(replica_begin(s->replica, &t), 0);
	assert_int_equal(index_get(t.index, path, &row), 0);
	times[1] = (struct timespec){row.record.mtime_ns / CLOCK_NS_PER_S, row.record.mtime_ns % CLOCK_NS_PER_S};
	assert_int_equal(utimensat(AT_FDCWD, site_at(s, path), times, 0), 0);
	assert_int_equal(file_stat_at(store_root(replica_store(s->replica)), path, &st), 0);
	stamp_of(&st, &row.stamp);
	row.recorded_ns += 10 * CLOCK_NS_PER_S;
	assert_int_equal(index_restamp(t.index, path, &row), 0);
	assert_int_equal(replica_commit(&t), 0);
	replica_unlock(s->replica);
	row_deinit(&row);
}

/* As after a power loss: no scan sees it, but who is asked for the content a second time looks at it. */
static void new_bytes_under_old_times(struct world *w)
{
	struct site *a = &w->sites[0], *b = &w->sites[1];

	site_write(a, "d", "as it was recorded");
	site_scan(a);
	site_write(a, "d", "as a user left it!");
	forge_stamp(a, "d");
	site_scan(a);
	assert_int_equal(a->seen.events, 0);
	world_sync(w, a, b, NULL);
	world_sync(w, a, b, NULL);
	sites_expect_equal(a, b);
	assert_int_equal(found(b, "as a user left it!", NULL), 1);
}

static void test_new_bytes_under_old_times(void **state)
{
	(void)state;
	with_seeds(5, 2, new_bytes_under_old_times);
}

static void mtime_at(struct site *s, const char *path, int64_t at)
{
	const struct timespec times[2] = {{.tv_nsec = UTIME_OMIT}, {.tv_sec = at}};

	assert_int_equal(utimensat(AT_FDCWD, site_at(s, path), times, 0), 0);
}

/* No scan sees it, but who is to replace it does, as its time, which is ahead of the clock, proves nothing to it. */
static void new_bytes_are_met_in_place(struct world *w)
{
	struct site *a = &w->sites[0], *b = &w->sites[1];

	site_write(a, "d", "as it was recorded");
	mtime_at(a, "d", clock_wall_ns() / CLOCK_NS_PER_S + 10 * 365 * 86400);
	world_sync(w, a, b, NULL);
	site_write(a, "d", "as a user left it!");
	forge_stamp(a, "d");
	site_scan(a);
	assert_int_equal(a->seen.events, 0);
	site_write(b, "d", "what the other one wrote");
	world_sync(w, a, b, NULL);
	world_sync(w, a, b, NULL);
	sites_expect_equal(a, b);
	assert_int_equal(found(b, "as a user left it!", NULL), 1);
	assert_int_equal(found(a, "what the other one wrote", NULL), 1);
}

static void test_new_bytes_are_met_in_place(void **state)
{
	(void)state;
	with_seeds(5, 2, new_bytes_are_met_in_place);
}

/* What undoing, ignoring and the like do to a path that is to be fetched again. */
static void forget_path(struct site *s, const char *path)
{
	struct replica_txn t;

	site_remove(s, path);
	replica_lock(s->replica);
	assert_int_equal(replica_begin(s->replica, &t), 0);
	assert_int_equal(replica_forget(&t, path), 0);
	assert_int_equal(index_drop(t.index, path), 0);
	assert_int_equal(replica_commit(&t), 0);
	replica_unlock(s->replica);
}

/* A path that is forgotten while a round is under way is not known because the round knew it. */
static void forgotten_in_a_round(struct world *w)
{
	struct site *a = &w->sites[0], *b = &w->sites[1];
	unsigned at = (unsigned)world_below(w, 1200), in_round = 0;
	struct wire *wire;

	site_write(a, "p", "to be fetched again");
	world_sync(w, a, b, NULL);
	site_write(b, "other", "a difference");
	site_scan(b);
	wire = wire_new(w, a, b, NULL);
	while (in_round <= at && end_state(&wire->end[0]) != SESSION_ENDED) {
		wire_step(wire, world_below(w, WIRE_STEPS));
		in_round += end_state(&wire->end[0]) == SESSION_ROUND;
	}
	forget_path(a, "p");
	world_run(w);
	wire_free(wire);
	world_sync(w, b, a, NULL);
	sites_expect_equal(a, b);
	assert_int_equal(found(a, "to be fetched again", NULL), 1);
}

static void test_forgotten_in_a_round(void **state)
{
	(void)state;
	with_seeds(60, 2, forgotten_in_a_round);
}

static void live_triangle(struct world *w)
{
	for (size_t i = 1; i < 3; i++)
		world_sync(w, &w->sites[0], &w->sites[i], NULL);
	for (size_t i = 0; i < 3; i++) {
		make_some(&w->sites[i], (const char *[]){"of-a", "of-b", "of-c"}[i]);
		site_write(&w->sites[i], "all", (const char *[]){"a", "b", "c"}[i]);
	}
	world_live(w, false);
	sites_expect_equal(&w->sites[0], &w->sites[1]);
	sites_expect_equal(&w->sites[0], &w->sites[2]);
	assert_int_equal(found(&w->sites[0], "a", NULL), 1);
	assert_int_equal(found(&w->sites[0], "b", NULL), 1);
	assert_int_equal(found(&w->sites[0], "c", NULL), 1);
}

static void test_live_triangle(void **state)
{
	(void)state;
	with_seeds(4, 3, live_triangle);
}

/* --- what is pushed --- */

static unsigned said[MESSAGE_TYPES]; /* messages of that type, of both sides */

static void count_said(struct wire *wire, int i, uint8_t type, const uint8_t *p, size_t n)
{
	said[type]++;
	say(wire, i, type, p, n);
}

/* Two that are connected, and had the same. */
static struct wire *connected(struct world *w, void (*tamper_with_it)(struct wire *, int, uint8_t, const uint8_t *, size_t))
{
	static const struct wire_options live = {.live = true};
	struct wire *wire;

	world_sync(w, &w->sites[0], &w->sites[1], NULL);
	wire = wire_new(w, &w->sites[w->seed & 1], &w->sites[!(w->seed & 1)], &live);
	wire_tamper(wire, tamper_with_it);
	world_run(w);
	memset(said, 0, sizeof(said));
	return wire;
}

/* What changed on the sites' disks is seen, and everybody has it then. */
static void changes_travel(struct world *w)
{
	memset(said, 0, sizeof(said));
	for (size_t i = 0; i < w->n_sites; i++)
		site_scan(&w->sites[i]);
	world_run(w);
	for (size_t i = 1; i < w->n_sites; i++)
		sites_expect_equal(&w->sites[0], &w->sites[i]);
}

/* One message there, and what answers it: nothing is asked for. */
static void expect_pushed(struct world *w)
{
	changes_travel(w);
	assert_int_equal(said[MESSAGE_PUSH], 1);
	assert_int_equal(said[MESSAGE_HELLO], 1);
	assert_int_equal(said[MESSAGE_DONE], 2);
	assert_int_equal(said[MESSAGE_ASK] + said[MESSAGE_PAIR] + said[MESSAGE_FETCH], 0);
}

static void wire_end(struct world *w, struct wire *wire)
{
	session_finish(wire->end[0].session);
	world_run(w);
	wire_note(wire);
	for (int i = 0; i < 2; i++)
		assert_false(wire->end[i].status.failed);
	wire_free(wire);
}

/* One side tells of a file where it deleted a directory, the other one still has that directory: both at the same time, to one who had
 * neither. What the first had seen is known once its round is over: nobody is in conflict. */
static void file_over_deleted(struct world *w)
{
	struct site *a = &w->sites[0], *b = &w->sites[1], *c = &w->sites[2];
	struct wire *wires[2];
	unsigned copies = 0;

	world_sync(w, a, b, NULL);
	world_sync(w, a, c, NULL);
	make_some(c, "d");
	make_some(c, "other");
	world_sync(w, a, c, NULL);
	site_remove(c, "d");
	site_write(c, "d", "a file now");
	site_scan(c);
	wires[0] = wire_new(w, b, c, NULL);
	wires[1] = wire_new(w, b, a, NULL);
	world_run(w);
	for (int i = 0; i < 2; i++)
		wire_end(w, wires[i]);
	for (int i = 0; i < 2; i++) {
		world_sync(w, a, b, NULL);
		world_sync(w, a, c, NULL);
	}
	sites_expect_equal(a, b);
	sites_expect_equal(a, c);
	assert_string_equal(site_read(b, "d"), "a file now");
	found(b, "a file now", &copies);
	assert_int_equal(copies, 0);
}

static void test_file_over_deleted(void **state)
{
	(void)state;
	with_seeds(60, 3, file_over_deleted);
}

static void pushed(struct world *w)
{
	struct site *a = &w->sites[0], *b = &w->sites[1];
	struct wire *wire;
	char path[64];

	make_some(a, "dir");
	site_write(a, "file", "was there");
	wire = connected(w, count_said);
	site_write(a, "file", "edited");
	expect_pushed(w);
	site_mkdir(b, "new");
	site_write(b, "new/file", "of b");
	site_write(b, "new/empty", "");
	site_symlink(b, "new/link", "file");
	chmod(site_at(b, "file"), 0600);
	site_remove(b, "dir/1");
	expect_pushed(w);
	site_rename(a, "new", "renamed");
	expect_pushed(w);
	site_remove(a, "renamed");
	site_write(a, "renamed", "a file now");
	expect_pushed(w);
	site_remove(b, "renamed");
	site_mkdir(b, "renamed");
	site_write(b, "renamed/deep", "a directory again");
	expect_pushed(w);
	/* what is not small is asked for */
	write_big(a, "big", MESSAGE_SMALL_BYTES_MAX + 1, w->seed);
	write_big(a, "small", MESSAGE_SMALL_BYTES_MAX, w->seed + 1);
	changes_travel(w);
	assert_int_equal(said[MESSAGE_PUSH], 1);
	assert_int_equal(said[MESSAGE_FETCH], 1);
	assert_int_equal(said[MESSAGE_DATA], 1);
	assert_int_equal(said[MESSAGE_ASK], 0);
	/* nothing changed: nothing is pushed */
	session_check(wire->end[0].session);
	changes_travel(w);
	assert_int_equal(said[MESSAGE_HELLO], 2);
	assert_int_equal(said[MESSAGE_PUSH] + said[MESSAGE_ASK], 0);
	/* too much at once is compared */
	for (unsigned i = 0; i < MESSAGE_PUSHED_MAX + 1; i++) {
		snprintf(path, sizeof(path), "link-%u", i);
		site_symlink(a, path, "x");
	}
	changes_travel(w);
	assert_int_equal(said[MESSAGE_PUSH], 0);
	assert_true(said[MESSAGE_ASK] > 0);
	site_write(a, "file", "after the comparison");
	expect_pushed(w);
	assert_int_equal(site_exceptions(a) + site_exceptions(b), 0);
	wire_end(w, wire);
}

static void test_pushed(void **state)
{
	(void)state;
	with_seeds(6, 2, pushed);
}

/* Both push at once: what differs then is compared, and hardly anything does. */
static void pushed_both_ways(struct world *w)
{
	struct site *a = &w->sites[0], *b = &w->sites[1];
	struct wire *wire;

	make_some(a, "dir");
	site_write(a, "both", "was there");
	wire = connected(w, count_said);
	site_write(a, "of-a", "a");
	site_remove(a, "dir/1");
	site_write(b, "of-b", "b");
	chmod(site_at(b, "dir/2"), 0640);
	changes_travel(w);
	assert_int_equal(said[MESSAGE_PUSH], 2);
	assert_int_equal(said[MESSAGE_PAIR] + said[MESSAGE_FETCH], 0);
	site_write(a, "both", "edit of a");
	site_write(b, "both", "edit of b");
	changes_travel(w);
	assert_int_equal(found(a, "edit of a", NULL), 1);
	assert_int_equal(found(a, "edit of b", NULL), 1);
	assert_int_equal(found(a, "was there", NULL), 0);
	site_remove(a, "both");
	site_write(b, "both", "edited, there it was removed");
	changes_travel(w);
	assert_string_equal(site_read(a, "both"), "edited, there it was removed");
	session_check(wire->end[0].session);
	world_run(w);
	assert_int_equal(site_exceptions(a) + site_exceptions(b), 0);
	wire_end(w, wire);
}

static void test_pushed_both_ways(void **state)
{
	(void)state;
	with_seeds(20, 2, pushed_both_ways);
}

/* What changes while a round is going on goes with the next. */
static void pushed_in_turn(struct world *w)
{
	struct site *from = &w->sites[world_below(w, 2)];
	struct wire *wire = connected(w, count_said);
	unsigned times = 1 + (unsigned)world_below(w, 6);
	char path[20];

	for (unsigned i = 0; i < times; i++) {
		snprintf(path, sizeof(path), "file-%u", i);
		site_write(from, path, path);
		site_scan(from);
		for (size_t steps = world_below(w, 300); steps; steps--) {
			wire_step(wire, world_below(w, WIRE_STEPS));
			spread_changes(w);
		}
	}
	world_run(w);
	sites_expect_equal(&w->sites[0], &w->sites[1]);
	assert_in_range(said[MESSAGE_PUSH], 1, times);
	assert_int_equal(said[MESSAGE_HELLO], said[MESSAGE_PUSH]);
	assert_int_equal(said[MESSAGE_ASK], 0);
	wire_end(w, wire);
}

static void test_pushed_in_turn(void **state)
{
	(void)state;
	with_seeds(40, 2, pushed_in_turn);
}

static void spoil_small(struct wire *wire, int i, uint8_t type, const uint8_t *p, size_t n)
{
	struct buf b = BUF_INIT;
	union message m;

	if (type != MESSAGE_PUSH) {
		count_said(wire, i, type, p, n);
		return;
	}
	assert_int_equal(message_decode(type, p, n, &m), 0);
	for (size_t k = 0; k < m.push.n; k++)
		if (m.push.rows[k].n)
			m.push.rows[k].bytes[0] ^= 1;
	assert_int_equal(message_encode(type, &m, &b), 0);
	message_deinit(type, &m);
	count_said(wire, i, type, b.data, b.len);
	buf_deinit(&b);
}

/* Content that is not what its row says is not put in place. */
static void pushed_otherwise(struct world *w)
{
	struct wire *wire = connected(w, spoil_small);

	site_write(&w->sites[0], "file", "said otherwise");
	changes_travel(w);
	assert_int_equal(said[MESSAGE_PUSH], 1);
	assert_int_equal(said[MESSAGE_FETCH], 1);
	wire_end(w, wire);
}

/* Nothing is deleted by a PUSH that a person has to confirm. */
static void pushed_deletions(struct world *w)
{
	struct site *a = &w->sites[0], *b = &w->sites[1];
	struct wire *wire;
	char path[64];

	for (unsigned i = 0; i < 130; i++) {
		snprintf(path, sizeof(path), "file-%u", i);
		site_write(a, path, path);
	}
	wire = connected(w, count_said);
	for (unsigned i = 0; i < 130; i++) {
		snprintf(path, sizeof(path), "file-%u", i);
		site_remove(a, path);
	}
	site_write(a, "other", "other");
	site_scan_confirmed(a, true);
	world_run(w);
	assert_int_equal(said[MESSAGE_PUSH], 1);
	assert_string_equal(site_read(b, "file-1"), "file-1");
	assert_string_equal(site_read(b, "other"), "other");
	wire_note(wire);
	assert_int_equal(wire->end[b == wire->end[1].site].status.held, 130);
	session_confirm(wire->end[b == wire->end[1].site].session);
	world_run(w);
	sites_expect_equal(a, b);
	assert_int_equal(site_kind(b, "file-1"), 0);
	wire_end(w, wire);
}

static void test_pushed_with_care(void **state)
{
	(void)state;
	with_seeds(4, 2, pushed_otherwise);
	with_seeds(4, 2, pushed_deletions);
}

/* To one who does not know it, nothing is pushed. */
static void push_to_older(struct world *w)
{
	static const struct wire_options live = {.live = true};
	struct wire *wire;

	world_sync(w, &w->sites[0], &w->sites[1], NULL);
	wire = wire_new(w, &w->sites[0], &w->sites[1], &live);
	wire_tamper(wire, count_said);
	for (int i = 0; i < 2; i++)
		wire->pipe[i].data[FRAME_PREFACE_BYTES - 1] = FRAME_VERSION_PUSH - 1;
	world_run(w);
	site_write(&w->sites[0], "file", "compared");
	changes_travel(w);
	assert_int_equal(said[MESSAGE_PUSH], 0);
	assert_true(said[MESSAGE_ASK] > 0);
	/* and it is not to be heard from such a one */
	say_sample(wire, 0, MESSAGE_PUSH);
	world_run(w);
	wire_note(wire);
	assert_int_equal(wire->end[1].status.error, -EBADMSG);
	wire_free(wire);
}

static void test_push_to_older(void **state)
{
	(void)state;
	with_seeds(2, 2, push_to_older);
}

/* The first site connects to the second one, once. Of *ret (may be NULL) only what was noted of it is left. */
static void meet(struct world *w, const char *address, uint8_t version, struct wire *ret)
{
	struct wire *wire = wire_new(w, &w->sites[0], &w->sites[1], &(struct wire_options){.address = address});

	memset(said, 0, sizeof(said));
	wire_tamper(wire, count_said);
	for (int i = 0; i < 2; i++)
		wire->pipe[i].data[FRAME_PREFACE_BYTES - 1] = version;
	run_to_end(w, wire);
	for (int i = 0; i < 2; i++)
		assert_false(wire->end[i].status.failed);
	if (ret)
		*ret = *wire;
	wire_free(wire);
	sites_expect_equal(&w->sites[0], &w->sites[1]);
}

static void meet_at(struct world *w, const char *address, uint8_t version)
{
	meet(w, address, version, NULL);
}

static void meet_again(struct world *w, uint8_t version)
{
	meet_at(w, NULL, version);
}

static void restart(struct site *s)
{
	site_close(s);
	site_open(s);
}

static void expect_pushed_first(struct world *w, unsigned fetches)
{
	site_scan(&w->sites[0]);
	meet_again(w, FRAME_VERSION_MAX);
	assert_int_equal(said[MESSAGE_PUSH], 1);
	assert_int_equal(said[MESSAGE_HELLO], 1);
	assert_int_equal(said[MESSAGE_FETCH], fetches);
	assert_int_equal(said[MESSAGE_ASK] + said[MESSAGE_PAIR] + said[MESSAGE_MATCH], 0);
}

/* What changed since the last session goes with the first HELLO of the next. */
static void pushed_first(struct world *w)
{
	struct site *a = &w->sites[0], *b = &w->sites[1];
	char path[64];

	make_some(a, "dir");
	write_big(a, "big", 5000, w->seed);
	site_scan(a);
	meet_again(w, FRAME_VERSION_MAX); /* they never met */
	assert_int_equal(said[MESSAGE_PUSH], 0);
	for (unsigned i = 0; i < 4; i++) {
		restart(a); /* another incarnation */
		site_write(a, "file", (char[]){(char)('a' + i), '\0'});
		expect_pushed_first(w, 0);
		assert_int_equal(said[MESSAGE_LINEAGE], 1);
	}
	site_remove(a, "dir/1");
	write_big(a, "big", 5001, w->seed);
	expect_pushed_first(w, 1); /* its pieces may be there */
	meet_again(w, FRAME_VERSION_MAX); /* nothing changed */
	assert_int_equal(said[MESSAGE_HELLO], 2);
	assert_int_equal(said[MESSAGE_PUSH] + said[MESSAGE_ASK], 0);
	site_write(b, "of-b", "b"); /* what came from the peer is no news for it */
	site_scan(b);
	meet_again(w, FRAME_VERSION_MAX);
	meet_again(w, FRAME_VERSION_MAX);
	assert_int_equal(said[MESSAGE_PUSH], 0);
	restart(a);
	restart(b);
	site_write(a, "of-a", "a"); /* both have news: what is left is compared */
	site_write(b, "of-b", "b again");
	site_scan(a);
	site_scan(b);
	meet_again(w, FRAME_VERSION_MAX);
	assert_int_equal(said[MESSAGE_PUSH], 1);
	assert_int_not_equal(said[MESSAGE_ASK], 0);
	assert_int_equal(said[MESSAGE_MATCH], 0); /* new incarnations are of replicas that met */
	site_write(a, "file", "to one who is found elsewhere");
	site_scan(a);
	meet_at(w, "elsewhere", FRAME_VERSION_MAX);
	assert_int_equal(said[MESSAGE_PUSH], 1);
	assert_int_equal(said[MESSAGE_ASK], 0);
	site_write(a, "file", "to one who knows no such PUSH");
	site_scan(a);
	meet_again(w, FRAME_VERSION_FIRST - 1);
	assert_int_equal(said[MESSAGE_PUSH], 0);
	for (unsigned i = 0; i < MESSAGE_PUSHED_MAX + 1; i++) { /* too much at once */
		snprintf(path, sizeof(path), "link-%u", i);
		site_symlink(a, path, "x");
	}
	site_scan(a);
	meet_again(w, FRAME_VERSION_MAX);
	assert_int_equal(said[MESSAGE_PUSH], 0);
	assert_int_equal(site_exceptions(a) + site_exceptions(b), 0);
}

static void test_pushed_first(void **state)
{
	(void)state;
	with_seeds(4, 2, pushed_first);
}

static uint64_t left_at_peer(struct world *w, uint8_t version)
{
	struct wire was;

	meet(w, NULL, version, &was);
	return was.end[0].status.peer_skipped;
}

/* A one-shot run hears what its peer left out, whether their roots are equal from the start, or after a PUSH, or not. */
static void left_out_there(struct world *w)
{
	struct site *a = &w->sites[0], *b = &w->sites[1];

	site_write(a, "file", "a");
	site_scan(a);
	b->unread = 2;
	assert_int_equal(left_at_peer(w, FRAME_VERSION_MAX), 2);
	for (uint8_t version = FRAME_VERSION_MIN; version <= FRAME_VERSION_MAX; version++) {
		assert_int_equal(left_at_peer(w, version), 2);
		site_write(a, "file", (char[]){(char)('a' + version), '\0'});
		site_scan(a);
		assert_int_equal(left_at_peer(w, version), 2);
		assert_int_equal(said[MESSAGE_PUSH], version >= FRAME_VERSION_FIRST);
	}
	a->unread = 1;
	assert_int_equal(left_at_peer(w, FRAME_VERSION_MAX), 2);
	b->unread = 0;
	assert_int_equal(left_at_peer(w, FRAME_VERSION_MAX), 0);
}

static void test_left_out_there(void **state)
{
	(void)state;
	with_seeds(2, 2, left_out_there);
}

/* Before the first site's HELLO, or after it, an incarnation is told of which nobody knows where it comes from. */
static void tell_orphan(struct wire *wire, int i, uint8_t type, const uint8_t *p, size_t n)
{
	struct version_incarnation entries[] = {{.inc = 77, .parent = 78, .from = 9}, {.inc = 79, .parent = 77, .from = 9}, {.inc = 80}, {.inc = 81, .parent = 80, .from = 3}};
	union message m = {.lineage = {.v = entries, .n = ARRAY_SIZE(entries)}};
	struct buf b = BUF_INIT;
	bool hello = i == 0 && type == MESSAGE_HELLO;

	if (hello && (wire->world->seed & 1))
		say(wire, i, type, p, n);
	assert_int_equal(message_encode(MESSAGE_LINEAGE, &m, &b), 0);
	if (hello)
		say(wire, i, MESSAGE_LINEAGE, b.data, b.len);
	if (!hello || !(wire->world->seed & 1))
		say(wire, i, type, p, n);
	buf_deinit(&b);
}

/* Ahead of HELLO the peer may take us for one that knows more: what has no past here is left out. Later it is an error. */
static void lineage_ahead(struct world *w)
{
	const struct version_lineage *l = replica_lineage(w->sites[1].replica);
	struct wire *wire = wire_new(w, &w->sites[0], &w->sites[1], NULL);

	wire_tamper(wire, tell_orphan);
	run_to_end(w, wire);
	assert_null(version_lineage_find(l, 77));
	assert_null(version_lineage_find(l, 79));
	if (w->seed & 1) {
		assert_int_equal(wire->end[1].status.error, -EBADMSG);
	} else {
		assert_false(wire->end[0].status.failed || wire->end[1].status.failed);
		assert_int_equal(version_lineage_find(l, 81)->parent, 80);
	}
	wire_free(wire);
}

static void test_lineage_ahead(void **state)
{
	(void)state;
	with_seeds(8, 2, lineage_ahead);
}

/* With one who does not know of shared contexts (its reader refuses them), content travels as it did. */
static void content_to_older(struct world *w)
{
	static const struct wire_options live = {.live = true};
	struct wire *wire;
	char text[5000];

	for (size_t i = 0; i < sizeof(text) - 1; i++)
		text[i] = "some words, again and again; "[i % 29];
	text[sizeof(text) - 1] = '\0';
	world_sync(w, &w->sites[0], &w->sites[1], NULL);
	wire = wire_new(w, &w->sites[0], &w->sites[1], &live);
	for (int i = 0; i < 2; i++) {
		size_t n;
		uint8_t *preface = (uint8_t *)session_output(wire->end[i].session, &n);

		assert_true(n >= FRAME_PREFACE_BYTES);
		preface[FRAME_PREFACE_BYTES - 1] = FRAME_VERSION_CONTEXT - 1;
	}
	world_run(w);
	for (unsigned i = 0; i < 3; i++) {
		text[i] = 'x';
		site_write(&w->sites[0], "file", text);
		changes_travel(w);
	}
	wire_end(w, wire);
}

static void test_content_to_older(void **state)
{
	(void)state;
	with_seeds(2, 2, content_to_older);
}

/* Each DATA as a BULK of one. */
static void say_bulk(struct wire *wire, int i, uint8_t type, const uint8_t *p, size_t n)
{
	struct buf b = BUF_INIT;
	union message m, bulk;

	if (type != MESSAGE_DATA) {
		say(wire, i, type, p, n);
		return;
	}
	assert_int_equal(message_decode(type, p, n, &m), 0);
	bulk.bulk = (struct message_bulk){&m.data, 1};
	assert_int_equal(message_encode(MESSAGE_BULK, &bulk, &b), 0);
	say(wire, i, MESSAGE_BULK, b.data, b.len);
	buf_deinit(&b);
}

/* Small contents are told together, but to one who does not know that, nor are they heard so from such a one. */
static void told_together(struct world *w)
{
	bool knows = w->seed & 1;
	struct wire *wire;
	char path[64];

	for (unsigned i = 0; i < 40; i++) {
		snprintf(path, sizeof(path), "small-%u", i);
		write_big(&w->sites[0], path, 1 + 300 * i, w->seed + i);
	}
	write_big(&w->sites[0], "large", 3000000, w->seed);
	meet_again(w, knows ? FRAME_VERSION_MAX : FRAME_VERSION_BULK - 1);
	assert_true(knows ? said[MESSAGE_BULK] > 0 && said[MESSAGE_BULK] + said[MESSAGE_DATA] < 40 :
			    said[MESSAGE_BULK] == 0 && said[MESSAGE_DATA] > 40);
	write_big(&w->sites[0], "one", 30000, w->seed);
	wire = wire_new(w, &w->sites[0], &w->sites[1], NULL);
	wire_tamper(wire, say_bulk);
	for (int i = 0; i < 2; i++)
		wire->pipe[i].data[FRAME_PREFACE_BYTES - 1] = knows ? FRAME_VERSION_MAX : FRAME_VERSION_BULK - 1;
	run_to_end(w, wire);
	assert_int_equal(wire->end[1].status.error, knows ? 0 : -EBADMSG);
	wire_free(wire);
}

static void test_told_together(void **state)
{
	(void)state;
	with_seeds(4, 2, told_together);
}

static void hostile_live(struct world *w)
{
	static const struct wire_options live = {.live = true};
	struct site *a = &w->sites[0], *b = &w->sites[1];
	struct wire *wire;

	make_some(a, "first");
	world_sync(w, a, b, NULL);
	wire = wire_new(w, a, b, &live);
	tamper_one_in = 1000000; /* not while they meet */
	wire_tamper(wire, tamper);
	world_run(w);
	tamper_one_in = (unsigned[]){2, 4, 8}[world_below(w, 3)];
	for (unsigned i = 0; i < 5; i++) {
		char path[20];

		snprintf(path, sizeof(path), "first/%u", i);
		site_write(world_one_in(w, 2) ? a : b, path, "edit");
		site_scan(a);
		site_scan(b);
		world_run(w);
	}
	run_to_end(w, wire);
	wire_free(wire);
	forget_remembered();
	site_expect_tidy(a);
	site_expect_tidy(b);
}

/* Two rows for one path. */
static void say_path_twice(struct wire *wire, int i, uint8_t type, const uint8_t *p, size_t n)
{
	struct buf b = BUF_INIT;
	union message m;

	if (type != MESSAGE_PAIR && type != MESSAGE_ROWS) {
		say(wire, i, type, p, n);
		return;
	}
	assert_int_equal(message_decode(type, p, n, &m), 0);
	if (m.pair.n_items > 1) {
		free(m.pair.items[1].path);
		m.pair.items[1].path = strdup(m.pair.items[0].path);
	}
	assert_int_equal(message_encode(type, &m, &b), 0);
	message_deinit(type, &m);
	say(wire, i, type, b.data, b.len);
	buf_deinit(&b);
}

/* It harms its own session, and not the folder. */
static void hostile_twice(struct world *w)
{
	struct site *a = &w->sites[0], *b = &w->sites[1];
	static const struct wire_options nowhere = {.nowhere = true};
	struct wire *wire;

	make_some(a, "first");
	world_sync(w, a, b, NULL);
	make_some(w->seed & 1 ? a : b, "second");
	wire = wire_new(w, a, b, &nowhere);
	wire_tamper(wire, say_path_twice);
	run_to_end(w, wire);
	assert_false(a->broken || b->broken);
	assert_true(wire->end[0].status.failed);
	wire_free(wire);
}

static void test_hostile_live_peer(void **state)
{
	(void)state;
	with_seeds(40, 2, hostile_live);
	with_seeds(4, 2, hostile_twice);
}

/* --- a caller that moves bytes slowly --- */

#define AHEAD 65536
#define CHUNK_MAX 131072 /* of files of this size */

static uint64_t asked, asked_most, ready_most;

static void count_ahead(struct wire *wire, int i, uint8_t type, const uint8_t *p, size_t n)
{
	union message m;
	size_t ready;

	session_output(wire->end[i].session, &ready);
	ready_most = ready > ready_most ? ready : ready_most;
	assert_int_equal(message_decode(type, p, n, &m), 0);
	for (size_t k = 0; type == MESSAGE_FETCH && k < m.fetch.n; k++)
		for (size_t l = 0; l < m.fetch.v[k].n; l++)
			asked += m.fetch.v[k].v[l].length;
	if (type == MESSAGE_DATA)
		asked -= m.data.n;
	for (size_t k = 0; type == MESSAGE_BULK && k < m.bulk.n; k++)
		asked -= m.bulk.v[k].n;
	asked_most = asked > asked_most ? asked : asked_most;
	message_deinit(type, &m);
	say(wire, i, type, p, n);
}

static void slow_wire(struct world *w)
{
	struct end end;

	asked = asked_most = ready_most = 0;
	write_big(&w->sites[0], "big", 3000000, w->seed);
	make_some(&w->sites[0], "some");
	sync_through(w, count_ahead, &(struct wire_options){.ahead = AHEAD}, &end);
	sites_expect_equal(&w->sites[0], &w->sites[1]);
	assert_int_equal(asked, 0);
	assert_in_range(asked_most, 1, AHEAD + CHUNK_MAX);
	assert_in_range(ready_most, 1, 2 * (AHEAD + CHUNK_MAX)); /* what was ready, and what was being read */
}

/* Little is asked for, and little is ready to be sent, so that nothing has to wait for long behind it. */
static void test_slow_wire(void **state)
{
	(void)state;
	with_seeds(4, 2, slow_wire);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_empty_folders),
		cmocka_unit_test(test_initial_copy),
		cmocka_unit_test(test_big_edits),
		cmocka_unit_test(test_edits_on_both_sides),
		cmocka_unit_test(test_conflict),
		cmocka_unit_test(test_kinds),
		cmocka_unit_test(test_kinds_in_conflict),
		cmocka_unit_test(test_many_in_the_way),
		cmocka_unit_test(test_directory_fails),
		cmocka_unit_test(test_renamed_directory),
		cmocka_unit_test(test_renamed_to_nowhere),
		cmocka_unit_test(test_identical_copies),
		cmocka_unit_test(test_paired),
		cmocka_unit_test(test_paired_but_for),
		cmocka_unit_test(test_paired_meanwhile),
		cmocka_unit_test(test_paired_with_a_liar),
		cmocka_unit_test(test_one_way),
		cmocka_unit_test(test_held_deletions),
		cmocka_unit_test(test_held_under_file),
		cmocka_unit_test(test_file_over_deleted),
		cmocka_unit_test(test_cut),
		cmocka_unit_test(test_spoilt_bytes),
		cmocka_unit_test(test_first_meetings),
		cmocka_unit_test(test_different_folders),
		cmocka_unit_test(test_fail),
		cmocka_unit_test(test_end_in_order),
		cmocka_unit_test(test_out_of_place),
		cmocka_unit_test(test_time_to_greet),
		cmocka_unit_test(test_garbage),
		cmocka_unit_test(test_only_the_walker_has_walked),
		cmocka_unit_test(test_hostile_peer),
		cmocka_unit_test(test_pieces),
		cmocka_unit_test(test_pieces_of_ours),
		cmocka_unit_test(test_nodes_told),
		cmocka_unit_test(test_nodes_told_unasked),
		cmocka_unit_test(test_bombs),
		cmocka_unit_test(test_implied_directory),
		cmocka_unit_test(test_skipped_is_not_deleted),
		cmocka_unit_test(test_new_bytes_under_old_times),
		cmocka_unit_test(test_new_bytes_are_met_in_place),
		cmocka_unit_test(test_forgotten_in_a_round),
		cmocka_unit_test(test_live_triangle),
		cmocka_unit_test(test_slow_wire),
		cmocka_unit_test(test_pushed),
		cmocka_unit_test(test_pushed_both_ways),
		cmocka_unit_test(test_pushed_in_turn),
		cmocka_unit_test(test_pushed_with_care),
		cmocka_unit_test(test_push_to_older),
		cmocka_unit_test(test_pushed_first),
		cmocka_unit_test(test_left_out_there),
		cmocka_unit_test(test_lineage_ahead),
		cmocka_unit_test(test_content_to_older),
		cmocka_unit_test(test_told_together),
		cmocka_unit_test(test_hostile_live_peer),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
