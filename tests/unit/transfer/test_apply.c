/* tests/unit/transfer/test_apply.c — batches on a real file system: every operation, every refusal,
 * and racing users. */
#include "tests/unit/transfer/apply_fixture.h"

#include <signal.h>
#include <sys/wait.h>

#include "base/error.h"
#include "base/sync.h"
#include "transfer/place.h"

/* The content under the path's conflict name, whatever its digits. */
static const char *aside_of(struct fixture *f, const char *path)
{
	struct row row;
	char *name;
	const char *text;

	fx_row(f, path, &row);
	name = conflict_path(path, &row.record.content.root, 1);
	text = fx_read(f, name);
	free(name);
	row_deinit(&row);
	return text;
}

static const char *aside_name(struct fixture *f, const char *path, const char *text)
{
	static char name[600];
	struct hash h;
	char *p;

	hash_bytes(store_algorithm(fx_store(f)), text, strlen(text), &h);
	p = conflict_path(path, &h, 1);
	snprintf(name, sizeof(name), "%s", p);
	free(p);
	return name;
}

/* Both must hold after every batch that a user did not interfere with. */
static void applied(struct fixture *f)
{
	fx_apply(f);
	fx_quiet(f);
}

#define RESULT(f, k, wanted) \
	assert_string_equal(apply_result_name((f)->items[k].result), apply_result_name(wanted))

static void test_new_file(void **state)
{
	struct fixture *f = fx_new();
	struct row row;
	struct stat st;

	(void)state;
	fx_their_file(f, "a.txt", "alpha", FX_AFTER);
	applied(f);
	RESULT(f, 0, APPLY_DONE);
	assert_true(f->items[0].consumed);
	assert_string_equal(fx_read(f, "a.txt"), "alpha");
	OK(stat(fx_path(f, "a.txt"), &st));
	assert_int_equal(st.st_mode & 07777, 0640);
	assert_int_equal(st.st_mtime, 1500000000);
	assert_true(fx_row(f, "a.txt", &row));
	assert_int_equal(row.place, ROW_ON_DISK);
	assert_int_equal(row.stamp.ino, st.st_ino);
	assert_int_equal(row.source, PEER_REPLICA);
	row_deinit(&row);
	/* Again: nothing is left to do. */
	f->items[0].staged = NULL;
	OK(fx_apply_raw(f));
	RESULT(f, 0, APPLY_NONE);
	fx_free(f);
}

static void test_replace(void **state)
{
	struct fixture *f = fx_new();

	(void)state;
	fx_write(f, "a.txt", "old");
	assert_int_equal(fx_scan(f).events, 1);
	fx_their_file(f, "a.txt", "new", FX_AFTER);
	applied(f);
	RESULT(f, 0, APPLY_DONE);
	assert_string_equal(fx_read(f, "a.txt"), "new");
	assert_int_equal(fx_find(f, "old").in_trash, 1);
	assert_int_equal(fx_find(f, "old").asides, 0);
	fx_free(f);
}

static void test_delete(void **state)
{
	struct fixture *f = fx_new();

	(void)state;
	fx_mkdir(f, "d");
	fx_write(f, "d/a", "content a");
	OK(symlink("nowhere", fx_path(f, "d/s")));
	fx_scan(f);
	fx_their_deletion(f, "d");
	fx_their_deletion(f, "d/a");
	fx_their_deletion(f, "d/s");
	applied(f);
	for (size_t k = 0; k < 3; k++)
		RESULT(f, k, APPLY_DONE);
	assert_false(fx_exists(f, "d"));
	assert_true(fx_tombstone(f, "d") && fx_tombstone(f, "d/a") && fx_tombstone(f, "d/s"));
	assert_int_equal(fx_find(f, "content a").in_trash, 1);
	fx_free(f);
}

/* The peer's K covers our version of the path, and nothing more. */
static void seen_there(struct fixture *f, const char *path)
{
	struct row row;

	assert_true(fx_row(f, path, &row));
	version_vector_deinit(&f->their_k);
	OK(version_vector_copy(&f->their_k, &row.record.vv));
	row_deinit(&row);
}

/* Absent at the peer, and seen there: a new event of ours. */
static void test_delete_as_event(void **state)
{
	struct fixture *f = fx_new();
	struct row row;

	(void)state;
	fx_write(f, "a", "content a");
	fx_scan(f);
	seen_there(f, "a");
	fx_item(f, "a", NULL);
	applied(f);
	RESULT(f, 0, APPLY_DONE);
	assert_false(fx_exists(f, "a"));
	assert_true(fx_row(f, "a", &row));
	assert_false(row.record.live);
	assert_int_equal(row.record.dots.n, 1);
	assert_true(row.since_ns > 0);
	row_deinit(&row);
	/* And dropped, once the grace is over. */
	seen_there(f, "a");
	f->options.grace_ns = INT64_MAX;
	OK(fx_apply_raw(f));
	RESULT(f, 0, APPLY_NONE);
	assert_true(fx_tombstone(f, "a"));
	f->options.grace_ns = 0;
	OK(fx_apply_raw(f));
	RESULT(f, 0, APPLY_DONE);
	assert_int_equal(fx_placed(f, "a"), -1);
	fx_free(f);
}

static void test_conflict_lost(void **state)
{
	struct fixture *f = fx_new();
	const char *name;

	(void)state;
	fx_write(f, "a.txt", "ours");
	fx_scan(f);
	name = aside_name(f, "a.txt", "ours");
	assert_string_equal(aside_of(f, "a.txt"), "");
	fx_their_file(f, "a.txt", "theirs", FX_CONCURRENT_WINS);
	applied(f);
	RESULT(f, 0, APPLY_DONE);
	assert_true(f->items[0].conflict);
	assert_string_equal(fx_read(f, "a.txt"), "theirs");
	assert_string_equal(fx_read(f, name), "ours");
	assert_true(fx_live(f, name));
	assert_int_equal(fx_placed(f, name), ROW_ON_DISK);
	assert_int_equal(fx_find(f, "ours").in_trash, 0);
	fx_free(f);
}

static void test_conflict_won(void **state)
{
	struct fixture *f = fx_new();

	(void)state;
	fx_write(f, "a.txt", "first");
	fx_scan(f);
	fx_write(f, "a.txt", "ours");
	fx_scan(f);
	fx_their_file(f, "a.txt", "theirs", FX_CONCURRENT_LOSES);
	applied(f);
	RESULT(f, 0, APPLY_WAIT);
	assert_false(f->items[0].consumed);
	assert_string_equal(fx_read(f, "a.txt"), "ours");
	fx_free(f);
}

/* The name is there with that content: a new event there, nothing moved, and what was touched there stays.
 * Another content there: the next number. */
static void test_conflict_name_taken(void **state)
{
	const struct timespec touched[2] = {{.tv_sec = 1077314237}, {.tv_sec = 1077314237}};
	struct fixture *f = fx_new();
	struct row before, after;
	char name[600], second[620];

	(void)state;
	fx_write(f, "a.txt", "ours");
	fx_write(f, "b.txt", "ours too");
	snprintf(name, sizeof(name), "%s", aside_name(f, "a.txt", "ours"));
	fx_write(f, name, "ours");
	OK(chmod(fx_path(f, name), 0751));
	OK(utimensat(AT_FDCWD, fx_path(f, name), touched, 0));
	fx_write(f, aside_name(f, "b.txt", "ours too"), "something else");
	fx_scan(f);
	assert_true(fx_row(f, name, &before));
	fx_their_file(f, "a.txt", "theirs", FX_CONCURRENT_WINS);
	fx_their_file(f, "b.txt", "theirs too", FX_CONCURRENT_WINS);
	applied(f);
	assert_true(fx_row(f, name, &after));
	assert_true(after.seq > before.seq);
	assert_true(version_vector_leq(&before.record.vv, &after.record.vv, NULL) ||
		    after.record.vv.n > 0);
	assert_false(version_dots_equal(&before.record.dots, &after.record.dots));
	assert_int_equal(after.stamp.ino, before.stamp.ino);
	assert_true(record_same_attributes(&before.record, &after.record));
	assert_true(after.record.mtime_ns == touched[1].tv_sec * CLOCK_NS_PER_S);
	assert_true(version_dots_equal(&before.record.adots, &after.record.adots));
	assert_true(version_dots_equal(&before.record.mdots, &after.record.mdots));
	assert_int_equal(fx_find(f, "ours").in_trash, 1);
	assert_int_equal(fx_find(f, "ours").asides, 1);
	row_deinit(&before);
	row_deinit(&after);
	snprintf(second, sizeof(second), "%s", aside_name(f, "b.txt", "ours too"));
	assert_string_equal(fx_read(f, second), "something else");
	strcpy(strrchr(second, '.'), "-2.txt");
	assert_string_equal(fx_read(f, second), "ours too");
	assert_true(fx_live(f, second));
	fx_free(f);
}

/* The index has the copy still, and a user has removed it: what loses now is kept under another name. */
static void test_conflict_name_just_removed(void **state)
{
	struct fixture *f = fx_new();
	char name[600];

	(void)state;
	fx_write(f, "a.txt", "ours");
	snprintf(name, sizeof(name), "%s", aside_name(f, "a.txt", "ours"));
	fx_write(f, name, "ours");
	fx_scan(f);
	OK(unlink(fx_path(f, name)));
	fx_their_file(f, "a.txt", "theirs", FX_CONCURRENT_WINS);
	fx_apply(f);
	assert_int_equal(fx_find(f, "ours").asides, 1);
	fx_free(f);
}

/* A user has removed the copy, which is not recorded yet, as the peer puts the same content there once more: his deletion has not seen that. */
static void test_copy_made_anew(void **state)
{
	struct fixture *f = fx_new();
	char name[600];

	(void)state;
	fx_write(f, "a.txt", "other");
	snprintf(name, sizeof(name), "%s", aside_name(f, "a.txt", "ours"));
	fx_write_like_theirs(f, name, "ours");
	fx_scan(f);
	OK(unlink(fx_path(f, name)));
	fx_their_file(f, name, "ours", FX_CONCURRENT_WINS);
	OK(apply_batch(&f->options, f->items, f->n));
	assert_int_equal(f->items[0].result, APPLY_CHANGED);
	assert_int_equal(fx_scan(f).deleted, 1);
	OK(apply_batch(&f->options, f->items, f->n));
	assert_int_equal(f->items[0].result, APPLY_DONE);
	assert_string_equal(fx_read(f, name), "ours");
	fx_free(f);
}

/* A directory has other times as soon as something comes into it: it is there all the same. */
static void test_directory_with_the_name_of_a_copy(void **state)
{
	struct fixture *f = fx_new();
	char name[600], below[640];

	(void)state;
	snprintf(name, sizeof(name), "%s", aside_name(f, "a.txt", "ours"));
	snprintf(below, sizeof(below), "%s/x", name);
	fx_mkdir(f, name);
	fx_scan(f);
	fx_write(f, below, "later");
	fx_their_directory(f, name, 0755, FX_CONCURRENT_WINS);
	OK(apply_batch(&f->options, f->items, f->n));
	assert_int_equal(f->items[0].result, APPLY_DONE);
	fx_free(f);
}

/* The name was there and is deleted: re-created as its descendant. */
static void test_conflict_name_deleted(void **state)
{
	struct fixture *f = fx_new();
	struct row tombstone, after;
	char name[600];

	(void)state;
	fx_write(f, "a.txt", "ours");
	snprintf(name, sizeof(name), "%s", aside_name(f, "a.txt", "ours"));
	fx_write(f, name, "ours");
	fx_scan(f);
	OK(unlink(fx_path(f, name)));
	fx_scan(f);
	assert_true(fx_row(f, name, &tombstone));
	assert_false(tombstone.record.live);
	fx_their_file(f, "a.txt", "theirs", FX_CONCURRENT_WINS);
	applied(f);
	assert_true(fx_row(f, name, &after));
	assert_true(after.record.live);
	assert_true(
		version_vector_leq(&tombstone.record.vv, &after.record.vv, replica_lineage(f->r)));
	row_deinit(&tombstone);
	row_deinit(&after);
	fx_free(f);
}

/* By policy only one is kept beside: the other goes to trash. */
static void test_conflict_policy(void **state)
{
	struct fixture *f = fx_new();
	uint64_t prefer = PEER_REPLICA;
	struct decide_policy policy = {.kind = DECIDE_PREFER, .prefer = &prefer, .n_prefer = 1};

	(void)state;
	f->options.policy = &policy;
	fx_write(f, "a.txt", "ours");
	fx_scan(f);
	fx_their_file(f, "a.txt", "theirs", FX_CONCURRENT_WINS);
	applied(f);
	RESULT(f, 0, APPLY_DONE);
	assert_int_equal(fx_find(f, "ours").in_trash, 1);
	assert_int_equal(fx_find(f, "ours").asides, 0);
	fx_free(f);
}

/* What stays although the peer saw and removed it is an event: that peer, and who learnt of it, take it again. */
static void test_renewed(void **state)
{
	const struct decide_policy newest = {.kind = DECIDE_NEWEST};
	const struct version_dot lost = {OTHER_INC, 5};
	struct fixture *f = fx_new();
	struct row before, after;

	(void)state;
	f->options.policy = &newest;
	fx_their_file(f, "a.txt", "theirs", FX_AFTER);
	applied(f);
	fx_write(f, "a.txt", "ours");
	fx_scan(f);
	assert_true(fx_row(f, "a.txt", &before));
	OK(version_vector_join(&f->theirs[0]->vv, &before.record.vv, replica_lineage(f->r)));
	OK(version_vector_raise(&f->theirs[0]->vv, lost, replica_lineage(f->r)));
	OK(version_dots_add(&f->theirs[0]->lost, lost));
	f->items[0].staged = NULL;
	OK(fx_apply_raw(f));
	RESULT(f, 0, APPLY_DONE);
	assert_string_equal(fx_read(f, "a.txt"), "ours");
	assert_true(fx_row(f, "a.txt", &after));
	assert_true(record_same_state(&before.record, &after.record));
	assert_int_equal(after.record.dots.n, 1);
	assert_false(version_vector_has(&f->theirs[0]->vv, after.record.dots.v[0], replica_lineage(f->r)));
	assert_true(version_vector_leq(&f->theirs[0]->vv, &after.record.vv, replica_lineage(f->r)));
	assert_int_equal(after.place, ROW_ON_DISK);
	assert_true(stamp_equal(&before.stamp, &after.stamp));
	OK(fx_apply_raw(f));
	RESULT(f, 0, APPLY_NONE);
	assert_int_equal(fx_scan(f).events, 0);
	row_deinit(&before);
	row_deinit(&after);
	fx_free(f);
}

static uint64_t watched;
static bool watched_synced;

int __real_file_syncfs(int fd);
int __wrap_file_syncfs(int fd);
int __wrap_file_syncfs(int fd)
{
	watched_synced = true;
	return __real_file_syncfs(fd);
}

int __real_file_fsync(int fd);
int __wrap_file_fsync(int fd);
int __wrap_file_fsync(int fd)
{
	struct file_stat st;

	watched_synced = watched_synced || (file_stat_fd(fd, &st) == 0 && st.ino == watched);
	return __real_file_fsync(fd);
}

static bool lands_and_syncs_root(struct fixture *f, const char *path)
{
	struct file_stat st;

	OK(file_stat_fd(store_root(fx_store(f)), &st));
	watched = st.ino;
	fx_their_file(f, path, "theirs", FX_AFTER);
	watched_synced = false;
	fx_apply(f);
	fx_forget_items(f);
	assert_string_equal(fx_read(f, path), "theirs");
	return watched_synced;
}

/* A user has moved a directory, and nothing is recorded of that yet: what comes into it must not be gone after a power cut. */
static void test_names_above_are_durable(void **state)
{
	struct fixture *f = fx_new();

	(void)state;
	fx_mkdir(f, "a");
	fx_mkdir(f, "a/b");
	fx_mkdir(f, "a/b/c");
	fx_mkdir(f, "new");
	fx_mkdir(f, "new/b");
	fx_mkdir(f, "new/b/c");
	fx_scan(f);
	assert_false(lands_and_syncs_root(f, "a/b/c/z"));
	OK(rename(fx_path(f, "a"), fx_path(f, "old")));
	OK(rename(fx_path(f, "new"), fx_path(f, "a")));
	assert_true(lands_and_syncs_root(f, "a/b/c/z2"));
	fx_free(f);
}

static void test_symlinks(void **state)
{
	struct fixture *f = fx_new();

	(void)state;
	OK(symlink("/etc/passwd", fx_path(f, "s")));
	fx_write(f, "t", "was a file");
	fx_scan(f);
	fx_their_symlink(f, "s", "../elsewhere", FX_AFTER);
	fx_their_symlink(f, "t", "now a link", FX_AFTER);
	fx_their_symlink(f, "u", "new", FX_AFTER);
	applied(f);
	assert_string_equal(fx_read(f, "s"), "-> ../elsewhere");
	assert_string_equal(fx_read(f, "t"), "-> now a link");
	assert_string_equal(fx_read(f, "u"), "-> new");
	assert_int_equal(fx_find(f, "was a file").in_trash, 1);
	fx_free(f);
}

/* A parent that is a symlink is never followed: that is another's place. */
static void test_symlink_on_the_way(void **state)
{
	struct fixture *f = fx_new(), *other = fx_new();

	(void)state;
	OK(symlink(other->root, fx_path(f, "d")));
	fx_their_file(f, "d/x", "escaped", FX_AFTER);
	OK(fx_apply_raw(f));
	assert_true(f->items[0].result == APPLY_FAILED || f->items[0].result == APPLY_CHANGED ||
		    f->items[0].result == APPLY_BLOCKED);
	assert_false(fx_exists(other, "x"));
	assert_false(fx_live(f, "d/x"));
	fx_free(f);
	fx_free(other);
}

static void test_implied(void **state)
{
	struct fixture *f = fx_new();
	struct stat st;

	(void)state;
	fx_their_file(f, "x/y/z", "deep", FX_AFTER);
	applied(f);
	RESULT(f, 0, APPLY_DONE);
	assert_int_equal(fx_placed(f, "x"), ROW_IMPLIED);
	assert_int_equal(fx_placed(f, "x/y"), ROW_IMPLIED);
	assert_false(fx_live(f, "x"));
	OK(stat(fx_path(f, "x/y"), &st));
	assert_int_equal(st.st_mode & 07777, 0700);
	/* The record arrives later: the directory is adopted. */
	fx_forget_items(f);
	fx_their_directory(f, "x", 0755, FX_AFTER);
	applied(f);
	RESULT(f, 0, APPLY_DONE);
	OK(stat(fx_path(f, "x"), &st));
	assert_int_equal(st.st_mode & 07777, 0755);
	assert_int_equal(fx_placed(f, "x"), ROW_ON_DISK);
	/* Implied ones go with their last child, others stay. */
	fx_forget_items(f);
	fx_their_deletion(f, "x/y/z");
	applied(f);
	assert_false(fx_exists(f, "x/y"));
	assert_int_equal(fx_placed(f, "x/y"), -1);
	assert_true(fx_exists(f, "x"));
	fx_free(f);
}

/* A directory whose record goes stays, implied, for what is live or unknown in it. */
static void test_directory_stays(void **state)
{
	struct fixture *f = fx_new();

	(void)state;
	fx_mkdir(f, "d");
	fx_write(f, "d/kept", "kept");
	fx_mkdir(f, "e");
	fx_scan(f);
	fx_ignore(f, "*.o\n");
	fx_write(f, "e/x.o", "ignored");
	fx_their_deletion(f, "d");
	fx_their_deletion(f, "e");
	fx_apply(f);
	RESULT(f, 0, APPLY_DONE);
	RESULT(f, 1, APPLY_DONE);
	assert_string_equal(fx_read(f, "d/kept"), "kept");
	assert_string_equal(fx_read(f, "e/x.o"), "ignored");
	assert_true(fx_tombstone(f, "d") && fx_tombstone(f, "e"));
	assert_int_equal(fx_placed(f, "d"), ROW_IMPLIED);
	assert_int_equal(fx_placed(f, "e"), ROW_IMPLIED);
	fx_quiet(f);
	fx_forget_items(f);
	fx_their_deletion(f, "d/kept");
	applied(f);
	assert_false(fx_exists(f, "d"));
	assert_int_equal(fx_placed(f, "d"), ROW_NOT_HERE);
	fx_free(f);
}

static void test_kind_changes(void **state)
{
	struct fixture *f = fx_new();

	(void)state;
	fx_mkdir(f, "d");
	fx_mkdir(f, "d/e");
	fx_write(f, "d/e/x", "x");
	fx_write(f, "m", "was a file");
	fx_scan(f);
	fx_their_file(f, "d", "now a file", FX_AFTER);
	fx_their_deletion(f, "d/e");
	fx_their_deletion(f, "d/e/x");
	fx_their_file(f, "m/n/o", "below", FX_AFTER);
	fx_their_directory(f, "m", 0750, FX_AFTER);
	fx_their_directory(f, "m/n", 0500, FX_AFTER);
	applied(f);
	for (size_t k = 0; k < f->n; k++)
		RESULT(f, k, APPLY_DONE);
	assert_string_equal(fx_read(f, "d"), "now a file");
	assert_string_equal(fx_read(f, "m/n/o"), "below");
	assert_int_equal(fx_find(f, "was a file").in_trash, 1);
	fx_free(f);
}

/* A directory with something unknown in it does not become a file. */
static void test_kind_change_blocked(void **state)
{
	struct fixture *f = fx_new();

	(void)state;
	fx_mkdir(f, "d");
	fx_write(f, "d/x", "x");
	fx_scan(f);
	fx_write(f, "d/unseen", "unseen");
	fx_their_file(f, "d", "now a file", FX_AFTER);
	fx_their_deletion(f, "d/x");
	fx_apply(f);
	RESULT(f, 0, APPLY_BLOCKED);
	RESULT(f, 1, APPLY_DONE);
	assert_string_equal(fx_read(f, "d/unseen"), "unseen");
	assert_true(fx_live(f, "d"));
	fx_free(f);
}

/* A live non-directory over live children: beside them, and a tombstone. */
static void test_file_over_children(void **state)
{
	struct fixture *f = fx_new();
	const char *name;

	(void)state;
	fx_mkdir(f, "d");
	fx_write(f, "d/x", "x");
	fx_scan(f);
	fx_their_file(f, "d", "a file", FX_AFTER);
	applied(f);
	RESULT(f, 0, APPLY_DONE);
	assert_true(f->items[0].conflict && f->items[0].consumed);
	assert_string_equal(fx_read(f, "d/x"), "x");
	assert_true(fx_tombstone(f, "d"));
	assert_int_equal(fx_placed(f, "d"), ROW_IMPLIED);
	name = aside_name(f, "d", "a file");
	assert_string_equal(fx_read(f, name), "a file");
	assert_true(fx_live(f, name));
	fx_free(f);
}

/* The other way round: children arrive below a file of ours. */
static void test_children_below_file(void **state)
{
	struct fixture *f = fx_new();
	const char *name;

	(void)state;
	fx_write(f, "q", "our file");
	fx_scan(f);
	fx_their_file(f, "q/r/x", "their x", FX_AFTER);
	applied(f);
	RESULT(f, 0, APPLY_DONE);
	assert_string_equal(fx_read(f, "q/r/x"), "their x");
	assert_true(fx_tombstone(f, "q"));
	assert_int_equal(fx_placed(f, "q"), ROW_IMPLIED);
	name = aside_name(f, "q", "our file");
	assert_string_equal(fx_read(f, name), "our file");
	assert_true(fx_live(f, name));
	fx_free(f);
}

/* The peer knows the child and has a file where its directory was: the child's deletion is still to be told. */
static void test_file_over_known_children(void **state)
{
	struct knowledge told = {0};
	struct fixture *f = fx_new();

	(void)state;
	fx_mkdir(f, "d");
	fx_write(f, "d/x", "x");
	fx_scan(f);
	seen_there(f, "d/x");
	fx_their_file(f, "d", "a file", FX_AFTER);
	applied(f);
	RESULT(f, 0, APPLY_BLOCKED);
	assert_true(fx_live(f, "d") && fx_live(f, "d/x"));
	fx_forget_items(f);

	/* Its knowledge leaves out that path, where it skipped something: both are kept, or nothing would ever go on. */
	OK(version_vector_copy(&told.k, &f->their_k));
	OK(knowledge_forget(&told, "d/x"));
	f->options.their_knowledge = &told;
	fx_their_file(f, "d", "a file", FX_AFTER);
	applied(f);
	RESULT(f, 0, APPLY_DONE);
	assert_true(f->items[0].conflict);
	assert_string_equal(fx_read(f, "d/x"), "x");
	knowledge_deinit(&told);
	fx_free(f);
}

/* Children came in a round that is not over, and another peer, which does not know them, tells of a file where their directory is: who
 * made them may have seen that go. */
static void test_file_over_children_of_another_round(void **state)
{
	struct fixture *f = fx_new();

	(void)state;
	replica_round_begins(f->r);
	fx_their_file(f, "d/x", "x", FX_AFTER);
	applied(f);
	RESULT(f, 0, APPLY_DONE);
	fx_forget_items(f);
	replica_round_begins(f->r);
	fx_their_file(f, "d", "a file", FX_CONCURRENT_LOSES);
	applied(f);
	RESULT(f, 0, APPLY_BLOCKED);
	assert_true(fx_live(f, "d/x"));
	fx_forget_items(f);
	assert_true(replica_round_over(f->r)); /* and that was waited for */

	fx_their_file(f, "d", "a file", FX_CONCURRENT_LOSES);
	applied(f);
	RESULT(f, 0, APPLY_DONE);
	assert_true(f->items[0].conflict);
	assert_string_equal(fx_read(f, "d/x"), "x");
	assert_false(replica_round_over(f->r));
	fx_free(f);
}

/* Of a directory only what is in it was seen, and all of it is gone by now, which no scan has told: no file takes its place before. */
static void test_file_over_gone_children(void **state)
{
	struct fixture *f = fx_new();
	const struct observe_options options = {.replica = f->r};
	const struct scan_options scan = {.store = fx_store(f), .ignore = f->ignore};
	const struct observe_path child = {.path = "d/x"};
	struct observe_result result = {0};

	(void)state;
	fx_mkdir(f, "d");
	fx_write(f, "d/x", "x");
	OK(observe_run(&options, &scan, &child, 1, NULL, NULL, &result));
	assert_int_equal(result.events, 1);
	OK(unlink(fx_path(f, "d/x")));
	OK(rmdir(fx_path(f, "d")));
	fx_their_deletion(f, "d/x");
	fx_their_file(f, "d", "a file", FX_AFTER);
	fx_apply(f);
	RESULT(f, 0, APPLY_CHANGED);
	RESULT(f, 1, APPLY_BLOCKED);
	assert_false(fx_exists(f, "d"));
	assert_int_equal(fx_scan(f).deleted, 1);
	fx_forget_items(f);
	fx_their_file(f, "d", "a file", FX_AFTER);
	applied(f);
	RESULT(f, 0, APPLY_DONE);
	assert_string_equal(fx_read(f, "d"), "a file");
	fx_free(f);
}

/* The peer does not know the child, but whoever made the file did: the peer is in the middle of a round with him. Where the peer
 * says that it skipped the child, its file has that vector by joining only: each would wait for the other. */
static void test_file_made_after_children(void **state)
{
	struct knowledge told = {0};
	struct fixture *f = fx_new();
	struct row row;

	(void)state;
	fx_mkdir(f, "d");
	fx_write(f, "d/x", "x");
	fx_scan(f);
	assert_true(fx_row(f, "d/x", &row));
	fx_their_file(f, "d", "a file", FX_AFTER);
	OK(version_vector_join(&f->theirs[0]->vv, &row.record.vv, replica_lineage(f->r)));
	applied(f);
	RESULT(f, 0, APPLY_BLOCKED);
	assert_true(fx_live(f, "d") && fx_live(f, "d/x"));
	fx_forget_items(f);

	OK(version_vector_copy(&told.k, &row.record.vv));
	OK(knowledge_forget(&told, "d/x"));
	f->options.their_knowledge = &told;
	fx_their_file(f, "d", "a file", FX_AFTER);
	OK(version_vector_join(&f->theirs[0]->vv, &row.record.vv, replica_lineage(f->r)));
	applied(f);
	RESULT(f, 0, APPLY_DONE);
	assert_true(f->items[0].conflict);
	assert_string_equal(fx_read(f, "d/x"), "x");
	knowledge_deinit(&told);
	row_deinit(&row);
	fx_free(f);
}

/* The same the other way round: our file, which the peer has replaced by a directory. */
static void test_children_below_known_file(void **state)
{
	struct fixture *f = fx_new();

	(void)state;
	fx_write(f, "q", "our file");
	fx_scan(f);
	seen_there(f, "q");
	fx_their_file(f, "q/r/x", "their x", FX_AFTER);
	applied(f);
	RESULT(f, 0, APPLY_BLOCKED);
	assert_string_equal(fx_read(f, "q"), "our file");
	assert_true(fx_live(f, "q"));
	fx_free(f);
}

/* A file that goes, and children that come, without a record for the directory. */
static void test_children_instead_of_file(void **state)
{
	struct fixture *f = fx_new();

	(void)state;
	fx_write(f, "q", "our file");
	fx_scan(f);
	fx_their_deletion(f, "q");
	fx_their_file(f, "q/x", "their x", FX_AFTER);
	applied(f);
	RESULT(f, 0, APPLY_DONE);
	RESULT(f, 1, APPLY_DONE);
	assert_string_equal(fx_read(f, "q/x"), "their x");
	assert_int_equal(fx_find(f, "our file").in_trash, 1);
	assert_int_equal(fx_find(f, "our file").asides, 0);
	assert_true(fx_tombstone(f, "q"));
	fx_free(f);
}

/* What is undecided below keeps the directory as it is. */
static void test_undecided_below(void **state)
{
	struct fixture *f = fx_new();

	(void)state;
	fx_mkdir(f, "d");
	fx_write(f, "d/x", "first");
	fx_scan(f);
	fx_write(f, "d/x", "ours");
	fx_scan(f);
	fx_their_deletion(f, "d");
	fx_their_file(f, "d/x", "theirs", FX_CONCURRENT_LOSES);
	applied(f);
	RESULT(f, 0, APPLY_BLOCKED);
	RESULT(f, 1, APPLY_WAIT);
	assert_true(fx_live(f, "d"));
	fx_free(f);
}

static void test_touch(void **state)
{
	struct fixture *f = fx_new();
	struct stat st;

	(void)state;
	fx_write(f, "a", "content");
	fx_mkdir(f, "d");
	fx_scan(f);
	fx_their_touch(f, "a", 0600, INT64_C(1600000000) * CLOCK_NS_PER_S + 5);
	fx_their_touch(f, "d", 0500, 0);
	applied(f);
	RESULT(f, 0, APPLY_DONE);
	RESULT(f, 1, APPLY_DONE);
	OK(stat(fx_path(f, "a"), &st));
	assert_int_equal(st.st_mode & 07777, 0600);
	assert_int_equal(st.st_mtim.tv_sec, 1600000000);
	OK(stat(fx_path(f, "d"), &st));
	assert_int_equal(st.st_mode & 07777, 0500);
	assert_int_equal(fx_find(f, "content").in_trash, 0);
	OK(chmod(fx_path(f, "d"), 0700));
	fx_free(f);
}

/* setuid goes with the owner it was meant for. */
static void test_setuid(void **state)
{
	struct fixture *f = fx_new();
	struct apply_item *item;
	struct stat st;

	(void)state;
	item = fx_their_file(f, "mine", "program", FX_AFTER);
	f->theirs[0]->mode = 04755;
	item = fx_their_file(f, "other", "program", FX_AFTER);
	f->theirs[1]->mode = 06755;
	f->theirs[1]->uid = getuid() + 12345;
	(void)item;
	applied(f);
	OK(stat(fx_path(f, "mine"), &st));
	assert_int_equal(st.st_mode & 07777, getuid() && getgid() ? 04755 : 0755); /* none of root's on a peer's word */
	OK(stat(fx_path(f, "other"), &st));
	assert_int_equal(st.st_mode & 07777, 0755);
	assert_int_equal(st.st_uid, getuid());
	if (getuid() == 0) {
		fx_forget_items(f);
		f->options.preserve_owner = true;
		fx_their_file(f, "other", "program 2", FX_AFTER);
		f->theirs[0]->mode = 06755;
		f->theirs[0]->uid = 12345;
		f->theirs[0]->gid = 54321;
		applied(f);
		OK(stat(fx_path(f, "other"), &st));
		assert_int_equal(st.st_mode & 07777, 06755);
		assert_int_equal(st.st_uid, 12345);
		assert_int_equal(st.st_gid, 54321);
	}
	fx_free(f);
}

static void test_ignored_and_unsupported(void **state)
{
	struct fixture *f = fx_new();
	struct apply_item *item;

	(void)state;
	fx_write(f, "opaque", "was a file");
	fx_write(f, "x.o", "mine");
	fx_ignore(f, "*.o\n");
	fx_their_file(f, "x.o", "theirs", FX_AFTER);
	item = fx_their_directory(f, "opaque", 0700, FX_AFTER);
	f->theirs[1]->kind = 77;
	(void)item;
	applied(f);
	RESULT(f, 0, APPLY_NOT_HELD);
	RESULT(f, 1, APPLY_NOT_HELD);
	assert_string_equal(fx_read(f, "x.o"), "mine");
	assert_int_equal(fx_placed(f, "x.o"), ROW_IGNORED);
	assert_true(fx_live(f, "x.o"));
	assert_int_equal(fx_placed(f, "opaque"), ROW_UNSUPPORTED);
	assert_false(fx_exists(f, "opaque"));
	assert_int_equal(fx_find(f, "was a file").in_trash, 1);
	/* A deletion of what is not on disk touches nothing on disk. */
	fx_forget_items(f);
	fx_their_deletion(f, "x.o");
	fx_their_deletion(f, "opaque");
	applied(f);
	assert_string_equal(fx_read(f, "x.o"), "mine");
	assert_true(fx_tombstone(f, "x.o") && fx_tombstone(f, "opaque"));
	assert_int_equal(fx_placed(f, "x.o"), ROW_NOT_HERE);
	fx_free(f);
}

/* Our version lost, but is not here to be put aside: who has it must act first. */
static void test_conflict_not_here(void **state)
{
	struct fixture *f = fx_new();
	struct row row;

	(void)state;
	fx_ignore(f, "*.o\n");
	fx_their_file(f, "x.o", "first", FX_AFTER);
	applied(f);
	RESULT(f, 0, APPLY_NOT_HELD);
	fx_forget_items(f);
	fx_their_file(f, "x.o", "second", FX_CONCURRENT_WINS);
	f->theirs[0]->dots.v[0].inc = f->theirs[0]->vv.v[0].inc = OTHER_INC;
	applied(f);
	RESULT(f, 0, APPLY_WAIT);
	assert_true(fx_row(f, "x.o", &row));
	assert_int_equal(row.record.content.size, strlen("first"));
	row_deinit(&row);
	fx_free(f);
}

static void test_needs_content(void **state)
{
	struct fixture *f = fx_new();
	struct index_txn *t;
	struct knowledge k = {0};
	enum decide_action action;
	bool content, differs;
	struct row row;

	(void)state;
	fx_their_file(f, "a", "content", FX_AFTER);
	fx_their_symlink(f, "s", "target", FX_AFTER);
	OK(index_begin_read(replica_index(f->r), &t));
	OK(replica_knowledge_read(t, &k));
	OK(apply_preview(t, &k, &f->options, &f->items[0], &row, &action, &content, &differs));
	assert_int_equal(action, DECIDE_TAKE);
	assert_true(content);
	assert_false(row_has_record(&row));
	OK(apply_preview(t, &k, &f->options, &f->items[1], &row, &action, &content, &differs));
	assert_false(content);
	index_abort(t);
	knowledge_deinit(&k);
	OK(file_unlink(store_staging(fx_store(f)), f->items[0].staged));
	f->items[0].staged = NULL;
	applied(f);
	RESULT(f, 0, APPLY_NEEDS_CONTENT);
	RESULT(f, 1, APPLY_DONE);
	assert_false(fx_exists(f, "a"));
	fx_free(f);
}

/* As a stage leaves it: with its attributes. */
static void make_ready(struct fixture *f, struct apply_item *item, struct place_ready *ret)
{
	cleanup_close int fd = -1;
	struct file_stat st;

	OK(file_open_write(store_staging(fx_store(f)), item->staged, &fd));
	OK(file_stat_fd(fd, &st));
	OK(place_make_ready(fd, &st, item->theirs, false, false, ret));
	item->ready = ret;
}

static void expect_file(struct fixture *f, const char *path, mode_t mode, time_t mtime)
{
	struct stat st;

	OK(stat(fx_path(f, path), &st));
	assert_int_equal(st.st_mode & 07777, mode);
	assert_int_equal(st.st_mtime, mtime);
}

/* What a staged file was given counts where it is what the record says; what happens to it then is seen. */
static void test_made_ready(void **state)
{
	struct place_ready ready[2 * SYNC_SET_MAX];
	char names[2 * SYNC_SET_MAX][8];
	struct fixture *f = fx_new();

	(void)state;
	for (size_t batch = 0; batch < 2; batch++) { /* few are synced one by one, many together */
		size_t n = batch ? 2 * SYNC_SET_MAX : 3;

		for (size_t k = 0; k < n; k++) {
			snprintf(names[k], sizeof(names[k]), "%zu-%zu", batch, k);
			make_ready(f, fx_their_file(f, names[k], "content", FX_AFTER), &ready[k]);
			if (k == 0)
				f->theirs[0]->mode = 0600;
			if (k == 1)
				f->theirs[1]->mtime_ns += CLOCK_NS_PER_S;
		}
		fx_apply(f);
		expect_file(f, names[0], 0600, 1500000000);
		expect_file(f, names[1], 0640, 1500000001);
		expect_file(f, names[n - 1], 0640, 1500000000);
		fx_quiet(f);
		fx_forget_items(f);
	}
	fx_free(f);
}

static void test_edited_after_it_was_made_ready(void **state)
{
	struct place_ready ready[2 * SYNC_SET_MAX];
	char names[2 * SYNC_SET_MAX][8];
	struct fixture *f = fx_new();
	cleanup_close int fd = -1;

	(void)state;
	for (size_t k = 0; k < 2 * SYNC_SET_MAX; k++) {
		snprintf(names[k], sizeof(names[k]), "%zu", k);
		make_ready(f, fx_their_file(f, names[k], "content", FX_AFTER), &ready[k]);
	}
	OK(file_open_write(store_staging(fx_store(f)), f->items[7].staged, &fd));
	OK(file_write(fd, "CONTENT", 7, 0));
	fd = close_keep(fd);
	fx_apply(f);
	RESULT(f, 7, APPLY_DONE);
	assert_int_equal(fx_scan(f).events, 1);
	fx_free(f);
}

/* A staged object that is not what was announced, or not there, is refused before anything happens.
 */
static void test_bad_staged(void **state)
{
	struct fixture *f = fx_new();

	(void)state;
	fx_write(f, "a", "old");
	fx_scan(f);
	fx_their_file(f, "a", "new", FX_AFTER);
	f->theirs[0]->content.size++;
	fx_their_file(f, "b", "new", FX_AFTER);
	OK(file_unlink(store_staging(fx_store(f)), f->items[1].staged));
	fx_their_file(f, "c", "fine", FX_AFTER);
	fx_apply(f);
	RESULT(f, 0, APPLY_FAILED);
	assert_int_equal(f->items[0].error, -EBADMSG);
	RESULT(f, 1, APPLY_FAILED);
	RESULT(f, 2, APPLY_DONE);
	assert_string_equal(fx_read(f, "a"), "old");
	fx_free(f);
}

static void test_bad_paths(void **state)
{
	struct fixture *f = fx_new();

	(void)state;
	fx_their_directory(f, "ok", 0700, FX_AFTER);
	f->items[0].path = ".syncd/x";
	fx_their_directory(f, "ok2", 0700, FX_AFTER);
	f->items[1].path = "../x";
	fx_their_directory(f, "ok3", 0700, FX_AFTER);
	fx_apply(f);
	RESULT(f, 0, APPLY_FAILED);
	RESULT(f, 1, APPLY_FAILED);
	RESULT(f, 2, APPLY_DONE);
	/* The same path twice is a fault of the caller. */
	f->items[0].path = f->items[1].path = "same";
	assert_int_equal(fx_apply_raw(f), -EINVAL);
	OK(apply_recover(f->r, NULL));
	assert_int_equal(fx_staging(f), 0);
	fx_free(f);
}

/* --- users were faster --- */

static void test_unscanned_edit(void **state)
{
	struct fixture *f = fx_new();

	(void)state;
	fx_write(f, "edited", "old");
	fx_write(f, "gone", "old");
	fx_write(f, "deleted", "old");
	fx_write(f, "touched", "old");
	fx_scan(f);
	fx_write(f, "edited", "mine");
	OK(unlink(fx_path(f, "gone")));
	fx_write(f, "deleted", "mine 2");
	fx_write(f, "new", "mine 3");
	OK(chmod(fx_path(f, "touched"), 0600));
	fx_their_file(f, "edited", "theirs", FX_AFTER);
	fx_their_file(f, "gone", "theirs", FX_AFTER);
	fx_their_deletion(f, "deleted");
	fx_their_file(f, "new", "theirs", FX_AFTER);
	fx_their_touch(f, "touched", 0644, 5);
	fx_apply(f);
	for (size_t k = 0; k < 5; k++)
		RESULT(f, k, APPLY_CHANGED);
	assert_string_equal(fx_read(f, "edited"), "mine");
	assert_string_equal(fx_read(f, "deleted"), "mine 2");
	assert_string_equal(fx_read(f, "new"), "mine 3");
	assert_false(fx_exists(f, "gone"));
	fx_free(f);
}

/* The stamp is the same to the nanosecond, but the content is not: the clock of the file system was
 * too coarse. */
static void test_racily_clean(void **state)
{
	struct fixture *f = fx_new();
	struct index_txn *t;
	struct row row;
	struct file_stat st;
	const char *paths[] = {"a", "b"};

	(void)state;
	fx_write(f, "a", "old");
	fx_write(f, "b", "old");
	fx_scan(f);
	fx_write(f, "a", "me!");
	fx_write(f, "b", "me?");
	OK(index_begin_write(replica_index(f->r), &t));
	for (size_t k = 0; k < 2; k++) {
		row = (struct row){0};
		OK(index_get(t, paths[k], &row));
		OK(file_stat_at(store_root(fx_store(f)), paths[k], &st));
		stamp_of(&st, &row.stamp);
		OK(index_restamp(t, paths[k], &row));
		row_deinit(&row);
	}
	OK(index_commit(&t));
	fx_their_file(f, "a", "theirs", FX_AFTER);
	fx_their_deletion(f, "b");
	fx_apply(f);
	RESULT(f, 0, APPLY_CHANGED);
	RESULT(f, 1, APPLY_CHANGED);
	assert_string_equal(fx_read(f, "a"), "me!");
	assert_string_equal(fx_read(f, "b"), "me?");
	fx_free(f);
}

static void test_busy(void **state)
{
	struct fixture *f = fx_new();
	int fd, gone;

	(void)state;
	fx_write(f, "a", "old");
	fx_write(f, "b", "old");
	fx_scan(f);
	fd = open(fx_path(f, "a"), O_WRONLY);
	gone = open(fx_path(f, "b"), O_RDWR);
	assert_true(fd >= 0 && gone >= 0);
	if (!store_abilities(fx_store(f))->lease)
		skip();
	fx_their_file(f, "a", "theirs", FX_AFTER);
	fx_their_deletion(f, "b");
	fx_apply(f);
	RESULT(f, 0, APPLY_BUSY);
	RESULT(f, 1, APPLY_BUSY);
	assert_string_equal(fx_read(f, "a"), "old");
	close(fd);
	close(gone);
	fx_free(f);
}

/* --- many --- */

static void test_many(void **state)
{
	static char paths[300][40];
	struct fixture *f = fx_new();

	(void)state;
	for (size_t k = 0; k < 300; k++) {
		snprintf(paths[k], sizeof(paths[k]), "dir%zu/sub%zu/file%zu", k % 40, k % 3, k);
		fx_their_file(f, paths[k], paths[k], FX_AFTER);
	}
	applied(f);
	for (size_t k = 0; k < 300; k++) {
		RESULT(f, k, APPLY_DONE);
		assert_string_equal(fx_read(f, paths[k]), paths[k]);
	}
	fx_forget_items(f);
	for (size_t k = 0; k < 300; k++)
		fx_their_deletion(f, paths[k]);
	applied(f);
	assert_false(fx_exists(f, "dir1"));
	assert_int_equal(fx_placed(f, "dir1/sub1"), -1);
	fx_free(f);
}

/* A name with no room for a marker in the path: to trash with it. */
static void test_long_names(void **state)
{
	struct fixture *f = fx_new();
	char name[256];

	(void)state;
	memset(name, 'n', 255);
	name[255] = '\0';
	fx_write(f, name, "ours");
	fx_scan(f);
	fx_their_file(f, name, "theirs", FX_CONCURRENT_WINS);
	applied(f);
	RESULT(f, 0, APPLY_DONE);
	assert_string_equal(fx_read(f, name), "theirs");
	assert_int_equal(fx_find(f, "ours").asides, 1);
	fx_free(f);
}

/* --- a racing user --- */

#define RACE_ROUNDS 250
#define RACE_TEXT_BYTES 64

/* One change by a user; text: what he left there, "-" for nothing. Contents differ in length, and
 * never come again. */
static bool race_change(
	const char *path, const char *other, unsigned k, unsigned *seed, char text[RACE_TEXT_BYTES])
{
	int fd, n;

	memset(text, 0, RACE_TEXT_BYTES);
	n = snprintf(text, RACE_TEXT_BYTES, "user %u", k);
	switch (rand_r(seed) % 4) {
	case 0: /* in place */
		fd = open(path, O_WRONLY);
		if (fd < 0)
			return false;
		if (rand_r(seed) % 2)
			usleep(rand_r(seed) % 200);
		if (pwrite(fd, text, (size_t)n, 0) != n || ftruncate(fd, n) != 0)
			_exit(1);
		close(fd);
		return true;
	case 1: /* renamed over */
	case 2:
		fd = open(other, O_WRONLY | O_CREAT | O_TRUNC, 0644);
		if (fd < 0 || write(fd, text, (size_t)n) != n)
			_exit(1);
		close(fd);
		if (rename(other, path) != 0)
			_exit(1);
		return true;
	default:
		strcpy(text, "-");
		return unlink(path) == 0;
	}
}

/* A few changes, some time within each wait that comes in; what the last one left is told. */
static void race_user(const char *path, int in, int out)
{
	char last[RACE_TEXT_BYTES] = "-", text[RACE_TEXT_BYTES], other[1100];
	unsigned seed = (unsigned)getpid(), k = 0, wait_us;

	snprintf(other, sizeof(other), "%s.tmp", path);
	while (read(in, &wait_us, sizeof(wait_us)) == sizeof(wait_us)) {
		memcpy(last, "?", 2);
		usleep((unsigned)rand_r(&seed) % (wait_us + 1));
		for (int n = 1 + rand_r(&seed) % 4; n > 0; n--) {
			if (race_change(path, other, ++k, &seed, text))
				memcpy(last, text, sizeof(text));
			usleep((unsigned)rand_r(&seed) % 100);
		}
		if (write(out, last, sizeof(last)) != sizeof(last))
			_exit(1);
	}
	_exit(0);
}

/* wait_us: how long the last batch took; the user comes while this one is at work. */
static void race_round(struct fixture *f, unsigned k, int go, unsigned *wait_us)
{
	int64_t start;
	char text[RACE_TEXT_BYTES];

	snprintf(text, sizeof(text), "peer %u", k);
	if (k % 5 == 4)
		fx_their_deletion(f, "p");
	else
		fx_their_file(f, "p", text, k % 7 == 3 ? FX_CONCURRENT_WINS : FX_AFTER);
	assert_int_equal(write(go, wait_us, sizeof(*wait_us)), sizeof(*wait_us));
	start = clock_monotonic_ns();
	fx_apply(f);
	*wait_us = (unsigned)((clock_monotonic_ns() - start) / 1000);
}

/* Whatever a user did meanwhile: what he wrote last is somewhere. */
static void test_racing_user(void **state)
{
	struct fixture *f = fx_new();
	char last[RACE_TEXT_BYTES];
	unsigned done = 0, asides = 0, k, wait_us = 500;
	int64_t until = clock_monotonic_ns() + CLOCK_NS_PER_S;
	int go[2], told[2], status;
	pid_t child;

	(void)state;
	OK(pipe2(go, O_CLOEXEC));
	OK(pipe2(told, O_CLOEXEC));
	child = fork();
	assert_true(child >= 0);
	if (child == 0) {
		close(go[1]);
		race_user(fx_path(f, "p"), go[0], told[1]);
	}
	for (k = 0; k < RACE_ROUNDS && (k < 20 || clock_monotonic_ns() < until); k++) {
		if (!fx_exists(f, "p"))
			fx_write(f, "p", "start");
		fx_scan(f);
		race_round(f, k, go[1], &wait_us);
		done += f->items[0].result == APPLY_DONE;
		asides += f->items[0].conflict;
		fx_forget_items(f);
		assert_int_equal(read(told[0], last, sizeof(last)), sizeof(last));
		if (strcmp(last, "-") != 0 && strcmp(last, "?") != 0 && fx_found(f, last) == 0)
			fail_msg("round %u: lost \"%s\"", k, last);
	}
	close(go[1]);
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
	close(go[0]);
	close(told[0]);
	close(told[1]);
	assert_true(done > 0);
	print_message("%u of %u done, %u beside\n", done, k, asides);
	fx_free(f);
}

/* --- moves --- */

static uint64_t inode(struct fixture *f, const char *path)
{
	struct stat st;

	OK(lstat(fx_path(f, path), &st));
	return st.st_ino;
}

static struct fixture *with_file_to_move(void)
{
	struct fixture *f = fx_new();

	fx_mkdir(f, "dir");
	fx_write_like_theirs(f, "dir/f", "content");
	fx_scan(f);
	return f;
}

static enum apply_result result_of(const struct fixture *f, const char *path)
{
	for (size_t k = 0; k < f->n; k++)
		if (strcmp(f->items[k].path, path) == 0)
			return f->items[k].result;
	fail_msg("no item %s", path);
	return APPLY_NONE;
}

/* It is the very object, and no trash has it. */
static void test_moved(void **state)
{
	struct fixture *f = with_file_to_move();
	uint64_t ino = inode(f, "dir/f");
	struct row row;

	(void)state;
	fx_their_move(f, "dir/f", "new/g", "content");
	fx_their_deletion(f, "dir");
	fx_apply(f);
	assert_int_equal(inode(f, "new/g"), ino);
	assert_false(fx_exists(f, "dir"));
	assert_true(fx_live(f, "new/g") && fx_tombstone(f, "dir/f") && fx_tombstone(f, "dir"));
	assert_int_equal(fx_find(f, "content").in_trash, 0);
	assert_true(fx_row(f, "new/g", &row));
	assert_int_equal(row.stamp.exact, store_abilities(fx_store(f))->exact_times);
	row_deinit(&row);
	fx_quiet(f);
	fx_free(f);
}

/* Not moved, and not deleted: both wait for a copy. */
static void stays(struct fixture *f, enum apply_result from)
{
	fx_apply(f);
	assert_int_equal(result_of(f, "dir/f"), from);
	assert_int_equal(result_of(f, "new/g"), APPLY_NEEDS_CONTENT);
	assert_true(fx_exists(f, "dir/f"));
	assert_false(fx_exists(f, "new"));
	assert_true(fx_live(f, "dir/f"));
	fx_free(f);
}

static void test_not_moved(void **state)
{
	struct fixture *f = with_file_to_move();
	int fd;

	(void)state;
	OK(link(fx_path(f, "dir/f"), fx_path(f, "second")));
	fx_scan(f);
	fx_their_move(f, "dir/f", "new/g", "content");
	stays(f, APPLY_NEEDS_CONTENT);

	f = with_file_to_move();
	fx_their_move(f, "dir/f", "new/g", "content");
	f->theirs[1]->mode = 0600; /* another thing than was here */
	stays(f, APPLY_NEEDS_CONTENT);

	f = with_file_to_move();
	fx_their_move(f, "dir/f", "new/g", "content");
	fx_write(f, "dir/f", "edited!");
	stays(f, APPLY_CHANGED);

	f = with_file_to_move();
	fx_their_move(f, "dir/f", "new/g", "content");
	fd = open(fx_path(f, "dir/f"), O_WRONLY);
	stays(f, APPLY_BUSY);
	close(fd);
}

/* A user has something at the new path: what was taken out goes back. */
static void test_moved_back(void **state)
{
	struct fixture *f = with_file_to_move();

	(void)state;
	fx_their_move(f, "dir/f", "g", "content");
	fx_write(f, "g", "a user's");
	fx_apply(f);
	assert_int_equal(result_of(f, "g"), APPLY_CHANGED);
	assert_int_equal(result_of(f, "dir/f"), APPLY_CHANGED);
	assert_string_equal(fx_read(f, "dir/f"), "content");
	assert_string_equal(fx_read(f, "g"), "a user's");
	fx_free(f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_new_file),
		cmocka_unit_test(test_replace),
		cmocka_unit_test(test_delete),
		cmocka_unit_test(test_delete_as_event),
		cmocka_unit_test(test_conflict_lost),
		cmocka_unit_test(test_conflict_won),
		cmocka_unit_test(test_conflict_name_taken),
		cmocka_unit_test(test_conflict_name_just_removed),
		cmocka_unit_test(test_copy_made_anew),
		cmocka_unit_test(test_directory_with_the_name_of_a_copy),
		cmocka_unit_test(test_conflict_name_deleted),
		cmocka_unit_test(test_conflict_policy),
		cmocka_unit_test(test_renewed),
		cmocka_unit_test(test_names_above_are_durable),
		cmocka_unit_test(test_symlinks),
		cmocka_unit_test(test_symlink_on_the_way),
		cmocka_unit_test(test_implied),
		cmocka_unit_test(test_directory_stays),
		cmocka_unit_test(test_kind_changes),
		cmocka_unit_test(test_kind_change_blocked),
		cmocka_unit_test(test_file_over_children),
		cmocka_unit_test(test_children_below_file),
		cmocka_unit_test(test_file_over_known_children),
		cmocka_unit_test(test_file_over_children_of_another_round),
		cmocka_unit_test(test_file_over_gone_children),
		cmocka_unit_test(test_file_made_after_children),
		cmocka_unit_test(test_children_below_known_file),
		cmocka_unit_test(test_children_instead_of_file),
		cmocka_unit_test(test_undecided_below),
		cmocka_unit_test(test_touch),
		cmocka_unit_test(test_setuid),
		cmocka_unit_test(test_ignored_and_unsupported),
		cmocka_unit_test(test_conflict_not_here),
		cmocka_unit_test(test_needs_content),
		cmocka_unit_test(test_moved),
		cmocka_unit_test(test_not_moved),
		cmocka_unit_test(test_moved_back),
		cmocka_unit_test(test_made_ready),
		cmocka_unit_test(test_edited_after_it_was_made_ready),
		cmocka_unit_test(test_bad_staged),
		cmocka_unit_test(test_bad_paths),
		cmocka_unit_test(test_unscanned_edit),
		cmocka_unit_test(test_racily_clean),
		cmocka_unit_test(test_busy),
		cmocka_unit_test(test_many),
		cmocka_unit_test(test_long_names),
		cmocka_unit_test(test_racing_user),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
