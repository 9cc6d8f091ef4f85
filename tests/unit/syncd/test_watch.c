/* inotify over a real tree: what is told for what users do, and under which path. */
#include "syncd/watch.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/error.h"
#include "base/file.h"
#include "tests/unit/where.h"

#define TOLD_MAX 4096

struct told {
	enum watch_what what;
	char *path;
};

struct tree {
	char top[128]; /* the root is top/root; top/outside is not watched */
	char root[160];
	int fd; /* of top/root */
	struct watch *watch;
	struct told told[TOLD_MAX];
	size_t n;
};

static void on_told(enum watch_what what, const char *path, void *data)
{
	struct tree *t = data;

	assert_true(t->n < TOLD_MAX);
	t->told[t->n++] = (struct told){what, strdup(path)};
}

static void forget(struct tree *t)
{
	while (t->n)
		free(t->told[--t->n].path);
}

/* Read what is there; what was told before is forgotten. */
static void look(struct tree *t)
{
	forget(t);
	assert_int_equal(watch_dispatch(t->watch), 0);
}

static size_t times_told(const struct tree *t, enum watch_what what, const char *path)
{
	size_t n = 0;

	for (size_t i = 0; i < t->n; i++)
		n += t->told[i].what == what && strcmp(t->told[i].path, path) == 0;
	return n;
}

static bool told_at_all(const struct tree *t, const char *path)
{
	for (size_t i = 0; i < t->n; i++)
		if (strcmp(t->told[i].path, path) == 0)
			return true;
	return false;
}

#define assert_told(t, what, path) assert_true(times_told(t, what, path) > 0)

/* What a scan does: watch a directory, then read it. */
static void scan_below(struct watch *w, int at, const char *name, const char *path)
{
	int fd = openat(at, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC), r;
	struct dirent *e;
	DIR *d;

	if (fd < 0)
		return; /* gone, or not a directory */
	r = watch_directory(w, fd, path);
	assert_true(r == 0 || r == WATCH_FULL);
	d = fdopendir(fd);
	assert_non_null(d);
	while ((e = readdir(d))) {
		char below[4096];

		if (!strcmp(e->d_name, ".") || !strcmp(e->d_name, "..") || (!*path && !strcmp(e->d_name, ".syncd")))
			continue;
		snprintf(below, sizeof(below), "%s%s%s", path, *path ? "/" : "", e->d_name);
		scan_below(w, fd, e->d_name, below);
	}
	closedir(d);
}

static void scan(struct tree *t, const char *path)
{
	scan_below(t->watch, t->fd, *path ? path : ".", path);
}

static void make_dir(struct tree *t, const char *path)
{
	assert_int_equal(mkdirat(t->fd, path, 0755), 0);
}

static void write_file(struct tree *t, const char *path)
{
	int fd = openat(t->fd, path, O_WRONLY | O_CREAT, 0644);

	assert_true(fd >= 0);
	assert_int_equal(write(fd, "x", 1), 1);
	close(fd);
}

static void move(struct tree *t, const char *from, const char *to)
{
	assert_int_equal(renameat(t->fd, from, t->fd, to), 0);
}

static int set_up(void **state)
{
	struct tree *t = calloc(1, sizeof(*t));

	snprintf(t->top, sizeof(t->top), "%.80s/watch.XXXXXX", where_disk());
	assert_non_null(mkdtemp(t->top));
	snprintf(t->root, sizeof(t->root), "%s/root", t->top);
	assert_int_equal(mkdir(t->root, 0755), 0);
	t->fd = open(t->root, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	assert_true(t->fd >= 0);
	make_dir(t, "../outside");
	make_dir(t, ".syncd");
	make_dir(t, "a");
	make_dir(t, "a/b");
	make_dir(t, "a/b/c");
	write_file(t, "old");
	assert_int_equal(watch_new(&t->watch, on_told, t), 0);
	scan(t, "");
	look(t);
	assert_int_equal(t->n, 0);
	assert_int_equal(watch_count(t->watch), 4);
	*state = t;
	return 0;
}

static int remove_one(const char *path, const struct stat *st, int flag, struct FTW *ftw)
{
	(void)st;
	(void)flag;
	(void)ftw;
	return remove(path);
}

static int tear_down(void **state)
{
	struct tree *t = *state;

	watch_free(t->watch);
	forget(t);
	if (t->fd >= 0)
		close(t->fd);
	nftw(t->top, remove_one, 16, FTW_DEPTH | FTW_PHYS);
	free(t);
	return 0;
}

/* --- files --- */

static void test_a_file_is_made_written_and_closed(void **state)
{
	struct tree *t = *state;
	int fd = openat(t->fd, "a/new", O_WRONLY | O_CREAT, 0644);

	look(t);
	assert_told(t, WATCH_WRITING, "a/new");
	assert_int_equal(times_told(t, WATCH_SETTLED, "a/new"), 0);
	assert_int_equal(write(fd, "x", 1), 1);
	look(t);
	assert_told(t, WATCH_WRITING, "a/new");
	assert_int_equal(times_told(t, WATCH_SETTLED, "a/new"), 0);
	close(fd);
	look(t);
	assert_told(t, WATCH_CLOSED, "a/new");
	assert_int_equal(t->n, 1);
}

static void test_reading_tells_nothing(void **state)
{
	struct tree *t = *state;
	int fd = openat(t->fd, "old", O_RDONLY);
	char byte;

	assert_int_equal(read(fd, &byte, 1), 1);
	close(fd);
	scan(t, "");
	look(t);
	assert_int_equal(t->n, 0);
}

static void test_files_change_name_attributes_and_go(void **state)
{
	struct tree *t = *state;

	move(t, "old", "a/b/moved");
	look(t);
	assert_told(t, WATCH_SETTLED, "old");
	assert_told(t, WATCH_SETTLED, "a/b/moved");
	assert_int_equal(fchmodat(t->fd, "a/b/moved", 0600, 0), 0);
	look(t);
	assert_told(t, WATCH_SETTLED, "a/b/moved");
	assert_int_equal(utimensat(t->fd, "a/b/moved", NULL, 0), 0);
	look(t);
	assert_told(t, WATCH_SETTLED, "a/b/moved");
	assert_int_equal(linkat(t->fd, "a/b/moved", t->fd, "a/linked", 0), 0);
	look(t);
	assert_true(told_at_all(t, "a/linked"));
	assert_int_equal(unlinkat(t->fd, "a/b/moved", 0), 0);
	look(t);
	assert_told(t, WATCH_SETTLED, "a/b/moved");
	assert_int_equal(symlinkat("anything", t->fd, "symlink"), 0);
	look(t);
	assert_true(told_at_all(t, "symlink"));
}

static void test_a_file_is_replaced(void **state)
{
	struct tree *t = *state;

	write_file(t, "a/temporary");
	look(t);
	move(t, "a/temporary", "old");
	look(t);
	assert_told(t, WATCH_SETTLED, "a/temporary");
	assert_told(t, WATCH_SETTLED, "old");
}

static void test_longest_name(void **state)
{
	struct tree *t = *state;
	char name[FILE_NAME_BYTES_MAX + 1], path[sizeof(name) + 8];

	memset(name, 'n', sizeof(name) - 1);
	name[sizeof(name) - 1] = 0;
	snprintf(path, sizeof(path), "a/b/c/%s", name);
	write_file(t, path);
	look(t);
	assert_told(t, WATCH_CLOSED, path);
}

/* --- directories --- */

static void test_a_new_subtree(void **state)
{
	struct tree *t = *state;

	make_dir(t, "a/new");
	make_dir(t, "a/new/below"); /* before anybody could watch a/new */
	write_file(t, "a/new/below/file");
	look(t);
	assert_told(t, WATCH_SUBTREE, "a/new");
	scan(t, "a/new");
	assert_int_equal(watch_count(t->watch), 6);
	write_file(t, "a/new/below/file");
	look(t);
	assert_told(t, WATCH_CLOSED, "a/new/below/file");
}

static void test_directories_attributes(void **state)
{
	struct tree *t = *state;

	assert_int_equal(fchmodat(t->fd, "a/b", 0700, 0), 0);
	look(t);
	assert_told(t, WATCH_SETTLED, "a/b");
	assert_int_equal(fchmod(t->fd, 0700), 0);
	look(t);
	assert_told(t, WATCH_SETTLED, "");
}

/* It had no watch, since it could not be opened, and perhaps can be now. */
static void test_an_unwatched_directory_changes_its_mode(void **state)
{
	struct tree *t = *state;

	make_dir(t, "a/closed");
	look(t);
	assert_int_equal(fchmodat(t->fd, "a/closed", 0700, 0), 0);
	look(t);
	assert_told(t, WATCH_SUBTREE, "a/closed");
}

static void test_a_directory_goes(void **state)
{
	struct tree *t = *state;

	assert_int_equal(unlinkat(t->fd, "a/b/c", AT_REMOVEDIR), 0);
	look(t);
	assert_told(t, WATCH_SETTLED, "a/b/c");
	assert_int_equal(watch_count(t->watch), 3);
	make_dir(t, "a/b/c");
	look(t);
	assert_told(t, WATCH_SUBTREE, "a/b/c");
	scan(t, "a/b/c");
	write_file(t, "a/b/c/file");
	look(t);
	assert_told(t, WATCH_CLOSED, "a/b/c/file");
}

static void test_a_moved_directory_keeps_working(void **state)
{
	struct tree *t = *state;

	move(t, "a/b", "moved");
	look(t);
	assert_told(t, WATCH_SETTLED, "a/b");
	assert_told(t, WATCH_SUBTREE, "moved");
	assert_int_equal(watch_count(t->watch), 4);
	/* without having been scanned again */
	write_file(t, "moved/file");
	write_file(t, "moved/c/file");
	look(t);
	assert_told(t, WATCH_CLOSED, "moved/file");
	assert_told(t, WATCH_CLOSED, "moved/c/file");
	assert_false(told_at_all(t, "a/b/file"));
	assert_false(told_at_all(t, "a/b/c/file"));
	/* its parent under it, both in one read */
	move(t, "a", "moved/c/a");
	move(t, "moved", "again");
	look(t);
	write_file(t, "again/c/a/file");
	look(t);
	assert_told(t, WATCH_CLOSED, "again/c/a/file");
	assert_int_equal(t->n, times_told(t, WATCH_CLOSED, "again/c/a/file") + times_told(t, WATCH_WRITING, "again/c/a/file"));
}

static void test_a_directory_moves_over_an_empty_one(void **state)
{
	struct tree *t = *state;

	make_dir(t, "empty");
	look(t);
	scan(t, "empty");
	move(t, "a/b", "empty");
	look(t);
	assert_int_equal(watch_count(t->watch), 4);
	write_file(t, "empty/c/file");
	look(t);
	assert_told(t, WATCH_CLOSED, "empty/c/file");
}

static void test_directories_are_exchanged(void **state)
{
	struct tree *t = *state;

	make_dir(t, "other");
	make_dir(t, "other/below");
	look(t);
	scan(t, "other");
	assert_int_equal(renameat2(t->fd, "a/b", t->fd, "other", RENAME_EXCHANGE), 0);
	look(t);
	assert_told(t, WATCH_SUBTREE, "a/b");
	assert_told(t, WATCH_SUBTREE, "other");
	scan(t, "a/b");
	scan(t, "other");
	write_file(t, "a/b/below/file");
	write_file(t, "other/c/file");
	look(t);
	assert_told(t, WATCH_CLOSED, "a/b/below/file");
	assert_told(t, WATCH_CLOSED, "other/c/file");
}

/* What is outside is not ours: its watches go, and nothing of it is told. */
static void test_a_directory_moves_out(void **state)
{
	struct tree *t = *state;

	move(t, "a/b", "../outside/b");
	look(t);
	assert_told(t, WATCH_SETTLED, "a/b");
	assert_int_equal(watch_count(t->watch), 2);
	write_file(t, "../outside/b/file");
	write_file(t, "../outside/b/c/file");
	make_dir(t, "../outside/b/c/directory");
	look(t);
	assert_int_equal(t->n, 0);
}

static void test_a_directory_moves_out_and_back(void **state)
{
	struct tree *t = *state;

	for (int i = 0; i < 3; i++) {
		move(t, "a/b", "../outside/b");
		if (i)
			look(t); /* the first time both are in one read */
		move(t, "../outside/b", "a/b");
		look(t);
		assert_told(t, WATCH_SUBTREE, "a/b");
		scan(t, "a/b");
		assert_int_equal(watch_count(t->watch), 4);
		write_file(t, "a/b/c/file");
		look(t);
		assert_told(t, WATCH_CLOSED, "a/b/c/file");
	}
	/* and away for good: nothing may remember it */
	assert_int_equal(unlinkat(t->fd, "a/b/c/file", 0), 0);
	assert_int_equal(unlinkat(t->fd, "a/b/c", AT_REMOVEDIR), 0);
	assert_int_equal(unlinkat(t->fd, "a/b", AT_REMOVEDIR), 0);
	look(t);
	assert_int_equal(watch_count(t->watch), 2);
}

/* More at once than halves of moves are remembered. */
static void test_very_many_directories_move_out(void **state)
{
	struct tree *t = *state;
	char from[32], to[48];

	for (int i = 0; i < 200; i++) {
		snprintf(from, sizeof(from), "d%d", i);
		make_dir(t, from);
	}
	look(t);
	scan(t, "");
	assert_int_equal(watch_count(t->watch), 204);
	for (int i = 0; i < 200; i++) {
		snprintf(from, sizeof(from), "d%d", i);
		snprintf(to, sizeof(to), "../outside/d%d", i);
		move(t, from, to);
	}
	look(t);
	assert_told(t, WATCH_SETTLED, "d0");
	assert_told(t, WATCH_SETTLED, "d199");
	assert_int_equal(watch_count(t->watch), 4);
	write_file(t, "a/b/c/file");
	look(t);
	assert_told(t, WATCH_CLOSED, "a/b/c/file");
}

/* The scan is ahead of the events: it finds directories where their events have not yet put them. */
static void test_the_scan_is_ahead_of_the_events(void **state)
{
	struct tree *t = *state;

	/* one comes from inside the other and takes its name */
	move(t, "a/b", "up");
	assert_int_equal(unlinkat(t->fd, "a", AT_REMOVEDIR), 0);
	move(t, "up", "a");
	scan(t, "");
	look(t);
	scan(t, "");
	write_file(t, "a/c/file");
	look(t);
	assert_told(t, WATCH_CLOSED, "a/c/file");
	/* a move and its end, seen by the scan in between */
	move(t, "a/c", "c");
	scan(t, "");
	look(t);
	scan(t, "");
	write_file(t, "c/new");
	look(t);
	assert_told(t, WATCH_CLOSED, "c/new");
	assert_int_equal(watch_count(t->watch), 3);
}

/* Names change places while the watch of one is found first below what it was above of. */
static void test_a_directory_appears_below_its_child(void **state)
{
	struct tree *t = *state;
	int fd;

	move(t, "a/b", "b");
	move(t, "a", "b/a");
	fd = openat(t->fd, "b/a", O_RDONLY | O_DIRECTORY);
	assert_true(fd >= 0);
	assert_int_equal(watch_directory(t->watch, fd, "a/b/a"), 0); /* as if a/b were still where it was */
	close(fd);
	look(t);
	scan(t, "");
	assert_int_equal(watch_count(t->watch), 4);
	write_file(t, "b/a/file");
	look(t);
	assert_told(t, WATCH_CLOSED, "b/a/file");
}

/* Without a watched parent a watch has no path: it is not kept, and one that is kept elsewhere stays. */
static void test_a_directory_whose_parent_is_not_watched(void **state)
{
	struct tree *t = *state;
	int fd;

	make_dir(t, "new");
	make_dir(t, "new/below");
	fd = openat(t->fd, "new/below", O_RDONLY | O_DIRECTORY);
	assert_int_equal(watch_directory(t->watch, fd, "new/below"), 0);
	close(fd);
	assert_int_equal(watch_count(t->watch), 4);
	fd = openat(t->fd, "a/b/c", O_RDONLY | O_DIRECTORY);
	assert_int_equal(watch_directory(t->watch, fd, "nowhere/c"), 0);
	close(fd);
	look(t);
	write_file(t, "a/b/c/file");
	look(t);
	assert_told(t, WATCH_CLOSED, "a/b/c/file");
}

static void test_a_deep_tree(void **state)
{
	struct tree *t = *state;
	char path[FILE_DEPTH_MAX * 2 + 8] = "d";

	make_dir(t, path);
	for (int i = 1; i < FILE_DEPTH_MAX - 1; i++) {
		strcat(path, "/d");
		make_dir(t, path);
	}
	look(t);
	scan(t, "d");
	strcat(path, "/f");
	write_file(t, path);
	look(t);
	assert_told(t, WATCH_CLOSED, path);
	move(t, "d", "e");
	look(t);
	path[0] = 'e';
	write_file(t, path);
	look(t);
	assert_told(t, WATCH_CLOSED, path);
	move(t, "e", "../outside/e");
	look(t);
	assert_int_equal(watch_count(t->watch), 4);
}

/* --- the state directory, the root --- */

static void test_the_state_directory_is_never_told(void **state)
{
	struct tree *t = *state;
	int fd = openat(t->fd, ".syncd", O_RDONLY | O_DIRECTORY);

	assert_int_equal(watch_directory(t->watch, fd, ".syncd"), 0);
	close(fd);
	assert_int_equal(watch_count(t->watch), 4);
	write_file(t, ".syncd/file");
	make_dir(t, ".syncd/staging");
	assert_int_equal(fchmodat(t->fd, ".syncd", 0700, 0), 0);
	move(t, ".syncd", "../outside/state");
	move(t, "../outside/state", ".syncd");
	write_file(t, ".SYNCD");
	look(t);
	assert_int_equal(t->n, 0);
	/* what comes from there is new here; what goes there is gone */
	move(t, ".syncd/file", "a/applied");
	move(t, "old", ".syncd/trash");
	look(t);
	assert_told(t, WATCH_SETTLED, "a/applied");
	assert_told(t, WATCH_SETTLED, "old");
	assert_int_equal(t->n, 2);
}

static void test_the_root_is_deleted(void **state)
{
	struct tree *t = *state;

	assert_int_equal(unlinkat(t->fd, ".syncd", AT_REMOVEDIR), 0);
	assert_int_equal(unlinkat(t->fd, "a/b/c", AT_REMOVEDIR), 0);
	assert_int_equal(unlinkat(t->fd, "a/b", AT_REMOVEDIR), 0);
	assert_int_equal(unlinkat(t->fd, "a", AT_REMOVEDIR), 0);
	assert_int_equal(unlinkat(t->fd, "old", 0), 0);
	assert_int_equal(rmdir(t->root), 0);
	close(t->fd);
	t->fd = -1;
	look(t);
	assert_told(t, WATCH_ROOT_GONE, "");
	assert_int_equal(watch_count(t->watch), 0);
	look(t);
	assert_int_equal(t->n, 0);
}

static void test_the_root_is_moved(void **state)
{
	struct tree *t = *state;
	char to[160];

	snprintf(to, sizeof(to), "%s/elsewhere", t->top);
	assert_int_equal(rename(t->root, to), 0);
	look(t);
	assert_told(t, WATCH_ROOT_GONE, "");
}

/* Another directory is given as the root, even one from inside it. */
static void test_the_root_is_another(void **state)
{
	struct tree *t = *state;
	int fd = openat(t->fd, "a/b", O_RDONLY | O_DIRECTORY);

	assert_int_equal(watch_directory(t->watch, fd, ""), 0);
	close(fd);
	assert_int_equal(watch_count(t->watch), 2);
	look(t);
	write_file(t, "a/b/c/file");
	write_file(t, "a/file");
	look(t);
	assert_told(t, WATCH_CLOSED, "c/file");
	assert_false(told_at_all(t, "a/file"));
	assert_false(told_at_all(t, "file"));
}

static void test_not_a_directory(void **state)
{
	struct tree *t = *state;
	int fd = openat(t->fd, "old", O_RDONLY);

	assert_int_equal(watch_directory(t->watch, fd, "old"), -ENOTDIR);
	close(fd);
	assert_true(watch_directory(t->watch, -1, "x") < 0);
	assert_int_equal(watch_count(t->watch), 4);
}

/* --- threads --- */

struct scanner {
	struct tree *tree;
	atomic_bool over;
};

static void *scan_again_and_again(void *data)
{
	struct scanner *s = data;

	while (!s->over)
		scan(s->tree, "");
	return NULL;
}

/* The owner dispatches while a scan adds watches, and a user moves things about. */
static void test_a_scan_in_another_thread(void **state)
{
	struct tree *t = *state;
	struct scanner s = {.tree = t};
	pthread_t thread;

	assert_int_equal(pthread_create(&thread, NULL, scan_again_and_again, &s), 0);
	for (int i = 0; i < 300; i++) {
		switch (i % 6) {
		case 0:
			move(t, "a/b", "b");
			break;
		case 1:
			move(t, "a", "b/a");
			break;
		case 2:
			move(t, "b/a", "../outside/a");
			break;
		case 3:
			move(t, "b", "../outside/a/b");
			break;
		case 4:
			make_dir(t, "a");
			assert_int_equal(unlinkat(t->fd, "a", AT_REMOVEDIR), 0);
			break;
		default:
			move(t, "../outside/a", "a");
		}
		look(t);
		assert_in_range(watch_count(t->watch), 0, 8);
		assert_int_equal(watch_unwatched(t->watch), 0);
	}
	s.over = true;
	pthread_join(thread, NULL);
	look(t);
	scan(t, "");
	assert_int_equal(watch_count(t->watch), 4);
	write_file(t, "a/b/c/file");
	look(t);
	assert_told(t, WATCH_CLOSED, "a/b/c/file");
}

static void test_free_with_things_left_to_tell(void **state)
{
	struct tree *t = *state;

	write_file(t, "a/file");
	move(t, "a/b", "../outside/b");
	/* tear_down frees it, nothing dispatched */
	watch_free(NULL);
}

#define on_a_tree(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		on_a_tree(test_a_file_is_made_written_and_closed),
		on_a_tree(test_reading_tells_nothing),
		on_a_tree(test_files_change_name_attributes_and_go),
		on_a_tree(test_a_file_is_replaced),
		on_a_tree(test_longest_name),
		on_a_tree(test_a_new_subtree),
		on_a_tree(test_directories_attributes),
		on_a_tree(test_an_unwatched_directory_changes_its_mode),
		on_a_tree(test_a_directory_goes),
		on_a_tree(test_a_moved_directory_keeps_working),
		on_a_tree(test_a_directory_moves_over_an_empty_one),
		on_a_tree(test_directories_are_exchanged),
		on_a_tree(test_a_directory_moves_out),
		on_a_tree(test_a_directory_moves_out_and_back),
		on_a_tree(test_very_many_directories_move_out),
		on_a_tree(test_the_scan_is_ahead_of_the_events),
		on_a_tree(test_a_directory_appears_below_its_child),
		on_a_tree(test_a_directory_whose_parent_is_not_watched),
		on_a_tree(test_a_deep_tree),
		on_a_tree(test_the_state_directory_is_never_told),
		on_a_tree(test_the_root_is_deleted),
		on_a_tree(test_the_root_is_moved),
		on_a_tree(test_the_root_is_another),
		on_a_tree(test_not_a_directory),
		on_a_tree(test_a_scan_in_another_thread),
		on_a_tree(test_free_with_things_left_to_tell),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
