/* tests/unit/tombstones/test_trash.c — where things go, come back from, and how long they stay. */
#include <time.h>

#include "tests/unit/tombstones/replica_help.h"

#include "tombstones/trash.h"

#define DAY (INT64_C(86400) * 1000000000)
#define NOW (INT64_C(20413) * DAY + DAY / 2) /* 2025-11-21, noon */

static int setup(void **state)
{
	struct place *p = calloc(1, sizeof(*p));

	place_make(p);
	place_open(p);
	*state = p;
	return 0;
}

static int teardown(void **state)
{
	place_remove(*state);
	free(*state);
	return 0;
}

static struct store *store_of(struct place *p)
{
	return replica_store(p->replica);
}

/* Put ROOT/path into trash; the bucket is returned in a static buffer. */
static const char *put(struct place *p, const char *path, int64_t now_ns)
{
	static char name[64];
	char *bucket = NULL;
	const char *last;
	int dir;

	assert_int_equal(file_open_parent(store_root(store_of(p)), path, &dir, &last), 0);
	assert_int_equal(trash_put(store_of(p), dir, last, path, now_ns, &bucket), 0);
	close(dir);
	snprintf(name, sizeof(name), "%s", bucket);
	free(bucket);
	return name;
}

static const char *in_trash(const struct place *p, const char *bucket, const char *path)
{
	static char name[4400];

	snprintf(name, sizeof(name), ".syncd/trash/%s/%s", bucket, path);
	return place_read(p, name);
}

static void test_buckets(void **state)
{
	struct place *p = *state;

	place_mkdir(p, "d");
	place_write(p, "d/f", "one");
	assert_string_equal(put(p, "d/f", NOW), "2025-11-21");
	assert_false(place_has(p, "d/f"));
	assert_string_equal(in_trash(p, "2025-11-21", "d/f"), "one");
	for (int i = 1; i < 20; i++) { /* each version has its own place */
		char text[16], bucket[32];

		snprintf(text, sizeof(text), "%d", i);
		snprintf(bucket, sizeof(bucket), "2025-11-21.%d", i);
		place_write(p, "d/f", text);
		assert_string_equal(put(p, "d/f", NOW), bucket);
		assert_string_equal(in_trash(p, bucket, "d/f"), text);
	}
	place_write(p, "d/g", "other"); /* another name: the first bucket */
	assert_string_equal(put(p, "d/g", NOW), "2025-11-21");
	place_write(p, "d/f", "tomorrow");
	assert_string_equal(put(p, "d/f", NOW + DAY), "2025-11-22");
	place_write(p, "d/f", "before time began");
	assert_string_equal(put(p, "d/f", -5), "1970-01-01");
}

/* A parent's name is taken by a file, and the other way round. */
/* Somebody removed all of it, as people do to make room: it is made again. */
static void test_removed(void **state)
{
	struct place *p = *state;

	place_write(p, "f", "one");
	assert_string_equal(put(p, "f", NOW), "2025-11-21");
	for (int again = 0; again < 2; again++) {
		assert_int_equal(nftw(place_at(p, ".syncd/trash"), place_remove_one, 8, FTW_DEPTH | FTW_PHYS), 0);
		place_write(p, "f", again ? "three" : "two");
		assert_string_equal(put(p, "f", NOW), "2025-11-21");
		assert_string_equal(in_trash(p, "2025-11-21", "f"), again ? "three" : "two");
	}
}

static void test_name_and_parent(void **state)
{
	struct place *p = *state;

	place_write(p, "a", "a file");
	assert_string_equal(put(p, "a", NOW), "2025-11-21");
	place_mkdir(p, "a");
	place_write(p, "a/b", "below");
	assert_string_equal(put(p, "a/b", NOW), "2025-11-21.1");
	rmdir(place_at(p, "a"));
	place_write(p, "a", "again");
	assert_string_equal(put(p, "a", NOW), "2025-11-21.2");
	/* the bucket itself */
	place_write(p, ".syncd/trash/2025-11-23", "in the way");
	place_write(p, "a", "third");
	assert_string_equal(put(p, "a", NOW + 2 * DAY), "2025-11-23.1");
}

/* Nobody's symlink in the way leads out of trash. */
static void test_symlink_in_the_way(void **state)
{
	struct place *p = *state;

	place_mkdir(p, "outside");
	assert_int_equal(mkdir(place_at(p, ".syncd/trash/2025-11-21"), 0700), 0);
	assert_int_equal(symlink("../../../outside", place_at(p, ".syncd/trash/2025-11-21/d")), 0);
	assert_int_equal(symlink("../../outside", place_at(p, ".syncd/trash/2025-11-21.1")), 0);
	place_mkdir(p, "d");
	place_write(p, "d/f", "x");
	assert_string_equal(put(p, "d/f", NOW), "2025-11-21.2");
	assert_false(place_has(p, "outside/f"));
	assert_false(place_has(p, "outside/d"));
	/* restoring through a symlink neither */
	rmdir(place_at(p, "d"));
	assert_int_equal(symlink("outside", place_at(p, "d")), 0);
	assert_int_equal(trash_restore(store_of(p), "d/f", NULL, NULL), FILE_VANISHED);
	assert_false(place_has(p, "outside/f"));
	assert_string_equal(in_trash(p, "2025-11-21.2", "d/f"), "x");
	/* nor aging: only the link goes */
	place_write(p, "outside/kept", "kept");
	assert_int_equal(trash_expire(store_of(p), NOW + 90 * DAY, 30 * DAY, 0, NULL), 0);
	assert_string_equal(place_read(p, "outside/kept"), "kept");
}

static void test_kinds(void **state)
{
	struct place *p = *state;
	int root = store_root(store_of(p));
	char target[16] = {0};
	char *bucket = NULL;

	assert_int_equal(symlink("nowhere", place_at(p, "l")), 0);
	put(p, "l", NOW);
	assert_int_equal(readlink(place_at(p, ".syncd/trash/2025-11-21/l"), target, sizeof(target) - 1), 7);
	place_mkdir(p, "d");
	assert_int_equal(trash_put(store_of(p), root, "d", "d", NOW, &bucket), FILE_IS_DIRECTORY);
	assert_int_equal(mkfifo(place_at(p, "fifo"), 0600), 0);
	assert_int_equal(trash_put(store_of(p), root, "fifo", "fifo", NOW, &bucket), FILE_UNSUPPORTED);
	assert_int_equal(trash_put(store_of(p), root, "none", "none", NOW, &bucket), FILE_VANISHED);
	assert_int_equal(trash_put(store_of(p), root, "l", "../l", NOW, &bucket), -EINVAL);
	assert_int_equal(trash_put(store_of(p), root, "l", ".syncd/l", NOW, &bucket), -EINVAL);
	assert_null(bucket);
}

static void test_deep(void **state)
{
	struct place *p = *state;
	char path[FILE_PATH_BYTES_MAX + 1] = "";
	struct store *s = store_of(p);
	char *bucket = NULL;
	const char *name;
	int dir;

	/* the longest path there may be, of components of 14 bytes */
	for (size_t i = 0; strlen(path) + 15 <= FILE_PATH_BYTES_MAX && i < FILE_DEPTH_MAX; i++)
		strcat(path, i ? "/directory-name" : "directory-name");
	path[strlen(path) - 1] = 'x';
	if (!path_valid(path))
		path[strrchr(path, '/') - path] = '\0';
	assert_true(path_valid(path));
	place_write(p, "f", "deep");
	assert_int_equal(trash_place(s, path, NOW, &dir, &name, &bucket), 0);
	assert_string_equal(bucket, "2025-11-21");
	assert_int_equal(file_rename_noreplace(store_root(s), "f", dir, name), 0);
	close(dir);
	free(bucket);
	assert_int_equal(trash_restore(s, path, NULL, &bucket), 0);
	assert_string_equal(bucket, "2025-11-21");
	free(bucket);
	assert_int_equal(file_open_parent(store_root(s), path, &dir, &name), 0);
	assert_int_equal(trash_put(s, dir, name, path, NOW, NULL), 0);
	close(dir);
	assert_int_equal(trash_expire(s, NOW + 40 * DAY, 30 * DAY, 0, NULL), 0);
	assert_false(place_has(p, ".syncd/trash/2025-11-21"));
}

struct listing {
	char text[1024];
	size_t stop_after;
};

static int list_one(const struct trash_entry *e, void *data)
{
	struct listing *l = data;
	size_t n = strlen(l->text);

	snprintf(l->text + n, sizeof(l->text) - n, "%s:%s ", e->bucket, e->path);
	return l->stop_after && !--l->stop_after ? 17 : 0;
}

static void test_list(void **state)
{
	struct place *p = *state;
	struct listing l = {0};

	assert_int_equal(trash_list(store_of(p), list_one, &l), 0);
	assert_string_equal(l.text, "");
	place_mkdir(p, "a");
	place_write(p, "a/z", "1");
	place_write(p, "a.b", "2");
	put(p, "a/z", NOW);
	put(p, "a.b", NOW);
	place_write(p, "a/z", "3");
	put(p, "a/z", NOW);
	place_write(p, "a/z", "4");
	put(p, "a/z", NOW - 3 * DAY);
	place_mkdir(p, ".syncd/trash/mine");
	place_mkdir(p, ".syncd/trash/2025-13-01");
	place_mkdir(p, ".syncd/trash/2025-11-21.0");
	place_mkdir(p, ".syncd/trash/2025-11-21.01");
	place_mkdir(p, ".syncd/trash/2025-11-21.99999999999");
	place_write(p, ".syncd/trash/mine/f", "not listed");
	assert_int_equal(trash_list(store_of(p), list_one, &l), 0);
	assert_string_equal(l.text, "2025-11-21.1:a/z 2025-11-21:a/z 2025-11-21:a.b 2025-11-18:a/z ");
	l = (struct listing){.stop_after = 2};
	assert_int_equal(trash_list(store_of(p), list_one, &l), 17);
	assert_string_equal(l.text, "2025-11-21.1:a/z 2025-11-21:a/z ");
	/* strangers' things stay */
	assert_int_equal(trash_expire(store_of(p), NOW + 400 * DAY, 0, 1, NULL), 0);
	assert_true(place_has(p, ".syncd/trash/mine/f"));
	assert_false(place_has(p, ".syncd/trash/2025-11-21"));
}

static void test_restore(void **state)
{
	struct place *p = *state;
	struct store *s = store_of(p);
	char *bucket = NULL;
	struct stat st;

	place_mkdir(p, "d");
	place_mkdir(p, "d/e");
	for (int i = 0; i < 3; i++) {
		char text[16];

		snprintf(text, sizeof(text), "%d", i);
		place_write(p, "d/e/f", text);
		usleep(5000);
		put(p, "d/e/f", NOW);
	}
	/* taken */
	place_write(p, "d/e/f", "mine");
	assert_int_equal(trash_restore(s, "d/e/f", NULL, NULL), FILE_EXISTS);
	assert_string_equal(place_read(p, "d/e/f"), "mine");
	unlink(place_at(p, "d/e/f"));
	/* the newest, then a bucket's own, directories and all, like the ones they are in */
	assert_int_equal(trash_restore(s, "d/e/f", NULL, &bucket), 0);
	assert_string_equal(bucket, "2025-11-21.2");
	assert_string_equal(place_read(p, "d/e/f"), "2");
	assert_false(place_has(p, ".syncd/trash/2025-11-21.2"));
	free(bucket);
	unlink(place_at(p, "d/e/f"));
	rmdir(place_at(p, "d/e"));
	rmdir(place_at(p, "d"));
	assert_int_equal(chmod(p->root, 0750), 0);
	assert_int_equal(trash_restore(s, "d/e/f", "2025-11-21", NULL), 0);
	assert_string_equal(place_read(p, "d/e/f"), "0");
	assert_int_equal(stat(place_at(p, "d/e"), &st), 0);
	assert_int_equal(st.st_mode & 07777, 0750);
	/* not there */
	unlink(place_at(p, "d/e/f"));
	assert_int_equal(trash_restore(s, "d/e/f", "2025-11-21", NULL), FILE_VANISHED);
	assert_int_equal(trash_restore(s, "none", NULL, NULL), FILE_VANISHED);
	assert_int_equal(trash_restore(s, "d/e", NULL, NULL), FILE_VANISHED); /* a directory */
	assert_int_equal(trash_restore(s, "d/e/f", "../trash", NULL), -EINVAL);
	assert_int_equal(trash_restore(s, "../x", NULL, NULL), -EINVAL);
	/* a file where a directory should be */
	rmdir(place_at(p, "d/e"));
	place_write(p, "d/e", "in the way");
	assert_int_equal(trash_restore(s, "d/e/f", NULL, NULL), FILE_VANISHED);
	assert_string_equal(in_trash(p, "2025-11-21.1", "d/e/f"), "1");
}

static void fill(struct place *p, const char *path, int64_t now_ns)
{
	static const char block[65536] = {1};
	int fd = open(place_at(p, path), O_WRONLY | O_CREAT | O_TRUNC, 0644);

	for (int i = 0; i < 4; i++)
		assert_int_equal(write(fd, block, sizeof(block)), sizeof(block));
	fsync(fd);
	close(fd);
	usleep(5000); /* another ctime */
	put(p, path, now_ns);
}

static void test_expire_by_age(void **state)
{
	struct place *p = *state;
	uint64_t removed = 0;

	place_mkdir(p, "d");
	fill(p, "d/old", NOW - 31 * DAY);
	fill(p, "d/edge", NOW - 30 * DAY);
	fill(p, "d/new", NOW);
	assert_int_equal(trash_expire(store_of(p), NOW, 30 * DAY, 0, &removed), 0);
	assert_true(removed >= 4 * 65536);
	assert_false(place_has(p, ".syncd/trash/2025-10-21"));
	assert_true(place_has(p, ".syncd/trash/2025-10-22/d/edge")); /* some of that day is younger than 30 days */
	assert_true(place_has(p, ".syncd/trash/2025-11-21/d/new"));
	assert_int_equal(trash_expire(store_of(p), NOW + 300 * DAY, -1, 0, &removed), 0);
	assert_int_equal(removed, 0);
	assert_int_equal(trash_expire(store_of(p), 5, 30 * DAY, 0, &removed), 0); /* a clock that fell back */
	assert_int_equal(removed, 0);
}

static void test_expire_where_all_was_removed(void **state)
{
	struct place *p = *state;
	uint64_t removed = 0;

	fill(p, "a", NOW - 31 * DAY);
	assert_int_equal(system(NULL) ? 0 : 1, 0);
	nftw(place_at(p, ".syncd/trash"), place_remove_one, 32, FTW_DEPTH | FTW_PHYS);
	assert_int_equal(trash_expire(store_of(p), NOW, 30 * DAY, 0, &removed), 0);
	assert_int_equal(removed, 0);
}

static void test_expire_by_size(void **state)
{
	struct place *p = *state;
	uint64_t removed = 0, each = 4 * 65536;

	fill(p, "a", NOW);
	fill(p, "b", NOW); /* within a day: by when they were put there, whatever the bucket's number */
	fill(p, "a", NOW);
	fill(p, "c", NOW - 2 * DAY); /* an older day goes first */
	assert_int_equal(trash_expire(store_of(p), NOW, 30 * DAY, 5 * each, &removed), 0);
	assert_int_equal(removed, 0);
	assert_int_equal(trash_expire(store_of(p), NOW, 30 * DAY, 3 * each + 9 * 4096, &removed), 0);
	assert_true(removed >= each && removed < 2 * each);
	assert_false(place_has(p, ".syncd/trash/2025-11-19"));
	assert_int_equal(trash_expire(store_of(p), NOW, 30 * DAY, each + 9 * 4096, &removed), 0);
	assert_true(removed >= 2 * each);
	assert_false(place_has(p, ".syncd/trash/2025-11-21"));
	assert_true(place_has(p, ".syncd/trash/2025-11-21.1/a"));
}

static void test_make_room(void **state)
{
	struct place *p = *state;
	uint64_t removed = 1, each = 4 * 65536;

	assert_int_equal(trash_make_room(store_of(p), each, &removed), 0); /* there is none */
	assert_int_equal(removed, 0);
	fill(p, "a", NOW);
	fill(p, "b", NOW);
	fill(p, "c", NOW - 2 * DAY); /* an older day goes first */
	assert_int_equal(trash_make_room(store_of(p), 1, &removed), 0);
	assert_true(removed >= each && removed < 2 * each);
	assert_false(place_has(p, ".syncd/trash/2025-11-19"));
	assert_true(place_has(p, ".syncd/trash/2025-11-21/a"));
	fill(p, "d", NOW - 2 * DAY);
	assert_int_equal(trash_make_room(store_of(p), each + 65536, &removed), 0); /* of the next day too */
	assert_true(removed >= 2 * each && removed < 3 * each);
	assert_false(place_has(p, ".syncd/trash/2025-11-21/a"));
	assert_true(place_has(p, ".syncd/trash/2025-11-21/b"));
	assert_int_equal(trash_make_room(store_of(p), 1000 * each, &removed), 0);
	assert_true(removed >= each && removed < 2 * each);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_buckets, setup, teardown),
		cmocka_unit_test_setup_teardown(test_removed, setup, teardown),
		cmocka_unit_test_setup_teardown(test_name_and_parent, setup, teardown),
		cmocka_unit_test_setup_teardown(test_symlink_in_the_way, setup, teardown),
		cmocka_unit_test_setup_teardown(test_kinds, setup, teardown),
		cmocka_unit_test_setup_teardown(test_deep, setup, teardown),
		cmocka_unit_test_setup_teardown(test_list, setup, teardown),
		cmocka_unit_test_setup_teardown(test_restore, setup, teardown),
		cmocka_unit_test_setup_teardown(test_expire_by_age, setup, teardown),
		cmocka_unit_test_setup_teardown(test_expire_where_all_was_removed, setup, teardown),
		cmocka_unit_test_setup_teardown(test_expire_by_size, setup, teardown),
		cmocka_unit_test_setup_teardown(test_make_room, setup, teardown),
	};

	return cmocka_run_group_tests_name("trash", tests, NULL, NULL);
}
