/*
 * tests/unit/transfer/test_recover.c — the process ends at the k-th call that changes the disk, for
 * every k; then again in the middle of the recovery; then recovery runs to its end. Old or new is
 * in place, nothing is lost, nothing looks like a user's doing, and the batch given again comes to
 * its end.
 */
#include "tests/unit/transfer/apply_fixture.h"
#include "tests/unit/transfer/apply_points.h"
#include "tests/unit/where.h"

#include <glob.h>
#include <sys/wait.h>
#include <time.h>

#include "transfer/intent.h"

#define KILLED 99

/* The batch: one of each. */
static const char *const users[] = {
	"old a", "old b", "old x", "old m", "ours c", "old w", "same t", "our q", "moved f", "moved g"};

static void make_tree(struct fixture *f)
{
	fx_write(f, "a.txt", "old a");
	fx_write(f, "b.txt", "old b");
	fx_mkdir(f, "d");
	fx_write(f, "d/x", "old x");
	fx_mkdir(f, "k");
	fx_write(f, "m", "old m");
	fx_write(f, "c.txt", "ours c");
	fx_mkdir(f, "w");
	fx_write(f, "w/y", "old w");
	OK(symlink("old target", fx_path(f, "s")));
	fx_write(f, "t.txt", "same t");
	fx_mkdir(f, "e");
	fx_write(f, "q", "our q");
	OK(chmod(fx_path(f, "t.txt"), 0600));
	fx_mkdir(f, "v");
	fx_write_like_theirs(f, "v/f", "moved f");
	fx_write_like_theirs(f, "v/g", "moved g");
	fx_scan(f);
}

static void make_items(struct fixture *f)
{
	fx_their_file(f, "a.txt", "new a", FX_AFTER);
	fx_their_deletion(f, "b.txt");
	fx_their_deletion(f, "d");
	fx_their_deletion(f, "d/x");
	fx_their_file(f, "k", "new k", FX_AFTER);
	fx_their_directory(f, "m", 0750, FX_AFTER);
	fx_their_file(f, "m/n", "new n", FX_AFTER);
	fx_their_file(f, "new/deep/f", "new f", FX_AFTER);
	fx_their_file(f, "c.txt", "theirs c", FX_CONCURRENT_WINS);
	fx_their_file(f, "w", "new w", FX_AFTER); /* over a live child: goes aside */
	fx_their_symlink(f, "s", "new target", FX_AFTER);
	fx_their_touch(f, "t.txt", 0640, INT64_C(1600000000) * CLOCK_NS_PER_S);
	fx_their_touch(f, "e", 0711, 0);
	fx_their_file(f, "q/r", "new r", FX_AFTER); /* below a file of ours */
	fx_their_move(f, "v/f", "v2/f", "moved f");
	fx_their_move(f, "v/g", "d2", "moved g");
	fx_their_deletion(f, "v");
}

/* The rows that a touch would be built upon are gone by then in no state: the same batch can be
 * made again. */
static void either(struct fixture *f, const char *path, const char *old, const char *new)
{
	const char *now = fx_read(f, path);

	if (strcmp(now, old) != 0 && strcmp(now, new) != 0)
		fail_msg("%s is \"%s\", neither \"%s\" nor \"%s\"", path, now, old, new);
}

static void check_either(struct fixture *f)
{
	either(f, "a.txt", "old a", "new a");
	either(f, "b.txt", "old b", "");
	either(f, "d/x", "old x", "");
	either(f, "d", "<dir>", "");
	either(f, "k", "<dir>", "new k");
	either(f, "m", "old m", "<dir>");
	either(f, "m/n", "", "new n");
	either(f, "new/deep/f", "", "new f");
	either(f, "c.txt", "ours c", "theirs c");
	either(f, "w", "<dir>", "<dir>");
	either(f, "w/y", "old w", "old w");
	either(f, "s", "-> old target", "-> new target");
	either(f, "t.txt", "same t", "same t");
	if (fx_exists(f, "q")) /* an implied directory whose child did not come is gone again */
		either(f, "q", "our q", "<dir>");
	either(f, "q/r", "", "new r");
	either(f, "v/f", "moved f", "");
	either(f, "v2/f", "", "moved f");
	either(f, "v/g", "moved g", "");
	either(f, "d2", "", "moved g");
	either(f, "v", "<dir>", "");
	assert_int_equal(fx_find(f, "moved f").in_place, 1);
	assert_int_equal(fx_find(f, "moved g").in_place, 1);
	for (size_t k = 0; k < ARRAY_SIZE(users); k++)
		if (fx_found(f, users[k]) == 0)
			fail_msg("lost: %s", users[k]);
}

/* modes: a directory's mode that the disk refused stays in the record only. */
static void check_final(struct fixture *f, bool modes)
{
	struct stat st;

	assert_string_equal(fx_read(f, "a.txt"), "new a");
	assert_false(fx_exists(f, "b.txt"));
	assert_false(fx_exists(f, "d"));
	assert_string_equal(fx_read(f, "k"), "new k");
	assert_string_equal(fx_read(f, "m/n"), "new n");
	assert_string_equal(fx_read(f, "new/deep/f"), "new f");
	assert_string_equal(fx_read(f, "c.txt"), "theirs c");
	assert_string_equal(fx_read(f, "w/y"), "old w");
	assert_string_equal(fx_read(f, "s"), "-> new target");
	assert_string_equal(fx_read(f, "q/r"), "new r");
	assert_string_equal(fx_read(f, "v2/f"), "moved f");
	assert_string_equal(fx_read(f, "d2"), "moved g");
	assert_false(fx_exists(f, "v"));
	assert_int_equal(fx_find(f, "moved f").in_trash + fx_find(f, "moved g").in_trash, 0);
	assert_int_equal(fx_find(f, "ours c").asides, 1);
	assert_int_equal(fx_find(f, "new w").asides, 1);
	assert_int_equal(fx_find(f, "our q").asides, 1);
	OK(stat(fx_path(f, "t.txt"), &st));
	assert_int_equal(st.st_mode & 07777, 0640);
	assert_int_equal(st.st_mtime, 1600000000);
	OK(stat(fx_path(f, "e"), &st));
	assert_int_equal(st.st_mode & 07777, 0711);
	OK(stat(fx_path(f, "m"), &st));
	assert_true(!modes || (st.st_mode & 07777) == 0750);
	assert_true(fx_tombstone(f, "w") && fx_tombstone(f, "b.txt") && fx_tombstone(f, "d/x") &&
		    fx_tombstone(f, "d"));
	assert_true(fx_live(f, "a.txt") && fx_live(f, "m") && fx_live(f, "k"));
	assert_int_equal(fx_placed(f, "new/deep"), ROW_IMPLIED);
}

/* As on a file system that knows no renaming without replacing. */
static bool refuses;

static void refuse(unsigned point, const char *call, void *data)
{
	(void)point, (void)data;
	if (refuses && strcmp(call, "file_rename_noreplace") == 0)
		points.error = FILE_UNSUPPORTED;
}

static void kill_at(unsigned point, const char *call, void *data)
{
	refuse(point, call, NULL);
	if (point == *(unsigned *)data)
		_exit(KILLED);
}

static bool unreadable; /* contents and targets, as by a disk that fails for a while */

int __real_file_open_seen(int dir, const char *name, int *ret_fd, struct file_stat *ret);
int __wrap_file_open_seen(int dir, const char *name, int *ret_fd, struct file_stat *ret);
int __wrap_file_open_seen(int dir, const char *name, int *ret_fd, struct file_stat *ret)
{
	return unreadable ? -EIO : __real_file_open_seen(dir, name, ret_fd, ret);
}

int __real_file_readlink(int dir, const char *name, char **ret);
int __wrap_file_readlink(int dir, const char *name, char **ret);
int __wrap_file_readlink(int dir, const char *name, char **ret)
{
	return unreadable ? -EIO : __real_file_readlink(dir, name, ret);
}

/* true: it was ended at the point. */
static bool run_child(struct fixture *f, void (*work)(struct fixture *f, unsigned k), unsigned k)
{
	pid_t child;
	int status;

	fflush(NULL);
	child = fork();
	assert_true(child >= 0);
	if (child == 0) {
		work(f, k);
		_exit(0);
	}
	assert_int_equal(waitpid(child, &status, 0), child);
	if (!WIFEXITED(status) || (WEXITSTATUS(status) != 0 && WEXITSTATUS(status) != KILLED))
		fail_msg("the child ended with %#x at point %u", status, k);
	return WEXITSTATUS(status) == KILLED;
}

/* The process ends at point k of the batch. */
static void apply_until(struct fixture *f, unsigned k)
{
	points_arm(kill_at, &k);
	OK(apply_batch(&f->options, f->items, f->n));
	points_arm(NULL, NULL);
	fx_close(f);
}

static void child_apply(struct fixture *f, unsigned k)
{
	fx_open(f);
	make_items(f);
	apply_until(f, k);
}

static void child_recover(struct fixture *f, unsigned k)
{
	fx_open(f);
	points_arm(kill_at, &k);
	OK(apply_recover(f->r, NULL));
	points_arm(NULL, NULL);
	fx_close(f);
}

/* The tree, closed, after the batch was ended at point k. *ret_killed: false if it has none. */
static struct fixture *cut_short(const char *place, bool exchange, unsigned k, bool *ret_killed)
{
	struct fixture *f = fx_new_in(place);

	f->no_exchange = !exchange;
	make_tree(f);
	fx_close(f);
	*ret_killed = run_child(f, child_apply, k);
	return f;
}

static void recovered_again(struct fixture *f)
{
	OK(apply_recover(f->r, NULL));
	assert_int_equal(fx_staging(f), 0);
	assert_int_equal(fx_intents(f), 0);
}

/* Recovered: nothing is a user's doing, and the batch given again comes to its end. */
static void comes_to_its_end(struct fixture *f)
{
	check_either(f);
	fx_quiet(f);
	check_either(f);
	make_items(f);
	fx_apply(f);
	fx_quiet(f);
	check_final(f, true);
	points_arm(NULL, NULL);
	fx_free(f);
}

/* Ended at point k of the batch and, if it is not 0, at point j of the recovery. false: the batch
 * has no point k. */
static bool crash_at(const char *place, bool exchange, unsigned k, unsigned j)
{
	bool killed;
	struct fixture *f = cut_short(place, exchange, k, &killed);

	if (j)
		run_child(f, child_recover, j);
	fx_open(f);
	points_arm(refuse, NULL);
	recovered_again(f);
	comes_to_its_end(f);
	return killed;
}

static void test_every_point(void **state)
{
	unsigned k = 1;

	(void)state;
	while (crash_at(where_memory(), true, k, k % 3 == 0 ? 1 + k * 7 % 40 : 0))
		k++;
	assert_true(k > 50);
	print_message("%u points\n", k - 1);
}

static void test_without_exchange(void **state)
{
	unsigned k = 1;

	(void)state;
	while (crash_at(where_memory(), false, k, k % 3 == 0 ? 1 + k * 7 % 40 : 0))
		k += 2;
	assert_true(k > 50);
}

/* A second name is made, then the first is removed: an end between is no reason for a third. */
static void test_without_no_replace(void **state)
{
	unsigned k = 1;

	(void)state;
	refuses = true;
	while (crash_at(where_memory(), false, k, k % 3 == 0 ? 1 + k * 7 % 40 : 0))
		k++;
	refuses = false;
	assert_true(k > 50);
}

/* Where generations tell inodes apart. */
static void test_some_points_on_disk(void **state)
{
	(void)state;
	for (unsigned k = 5; k < 200; k += 17)
		if (!crash_at(where_disk(), true, k, 0))
			break;
}

static void note_syncs(unsigned point, const char *call, void *data)
{
	bool *w = data; /* made, synced, committed */

	(void)point;
	w[0] = w[0] || strcmp(call, "file_symlink") == 0;
	w[1] = w[1] || (w[0] && !w[2] && strcmp(call, "file_syncfs") == 0);
	w[2] = w[2] || strcmp(call, "index_commit") == 0;
}

/* A symlink's mtime is durable before the intent says what it is: else it looks like a user's doing after a power cut. */
static void test_symlinks_are_durable(void **state)
{
	struct fixture *f = fx_new_in(where_memory());
	bool was[3] = {false};

	(void)state;
	fx_their_symlink(f, "s", "target", FX_AFTER);
	points_arm(note_syncs, was);
	OK(apply_batch(&f->options, f->items, f->n));
	points_arm(NULL, NULL);
	assert_true(was[0] && was[1] && was[2]);
	fx_free(f);
}

/* --- looks that fail --- */

/* The look that fails, from 1; 0: none. Not one at a conflict copy, which the next scan then finds (DESIGN.md, Known). */
static unsigned blind_at, looks;
static uint64_t number_used_again; /* of "d"; 0: it is what it is */

int __real_file_stat_at(int dir, const char *name, struct file_stat *ret);
int __wrap_file_stat_at(int dir, const char *name, struct file_stat *ret);
int __wrap_file_stat_at(int dir, const char *name, struct file_stat *ret)
{
	bool copy = strstr(name, ".sync-conflict-") != NULL;
	int r = blind_at && !copy && ++looks == blind_at ? -ESTALE : __real_file_stat_at(dir, name, ret);

	if (r == 0 && number_used_again && strcmp(name, "d") == 0)
		ret->ino = number_used_again;
	return r;
}

/* Ended at point k; the j-th look of the recovery fails. Until the next one, nothing there is taken for a user's doing. */
static bool blind_recovery(bool exchange, unsigned k, unsigned j, unsigned *unfinished)
{
	bool killed, reached;
	struct fixture *f = cut_short(where_memory(), exchange, k, &killed);
	int r;

	fx_open(f);
	blind_at = j;
	looks = 0;
	r = apply_recover(f->r, NULL);
	blind_at = 0;
	reached = looks >= j;
	*unfinished += replica_unfinished(f->r, "");
	if (r == 0 && fx_scan(f).events != 0)
		fail_msg("what was interrupted at point %u, and not seen by look %u, is taken for a user's doing", k, j);
	recovered_again(f);
	assert_false(replica_unfinished(f->r, ""));
	comes_to_its_end(f);
	return reached;
}

static void test_blind_recovery(void **state)
{
	unsigned unfinished = 0;

	(void)state;
	for (unsigned k = 8; k < 73; k += 5)
		for (unsigned j = 1 + k % 5; blind_recovery(k % 2, k, j, &unfinished); j += 5)
			;
	assert_true(unfinished > 20);
}

/* Ended at point k; what had landed is deleted, and the j-th look of the recovery fails: it stays deleted, whichever look that was. */
static bool blind_to_deletion(unsigned k, unsigned j, unsigned *deletions)
{
	static const char *const news[][2] = {{"a.txt", "new a"}, {"k", "new k"}, {"m/n", "new n"}, {"v2/f", "moved f"}, {"d2", "moved g"}};
	bool killed, reached, deleted[ARRAY_SIZE(news)];
	struct fixture *f = cut_short(where_memory(), true, k, &killed);

	for (size_t i = 0; i < ARRAY_SIZE(news); i++) {
		deleted[i] = strcmp(fx_read(f, news[i][0]), news[i][1]) == 0;
		if (deleted[i])
			OK(unlink(fx_path(f, news[i][0])));
		*deletions += deleted[i];
	}
	fx_open(f);
	blind_at = j;
	looks = 0;
	(void)apply_recover(f->r, NULL);
	blind_at = 0;
	reached = looks >= j;
	recovered_again(f);
	fx_scan(f);
	for (size_t i = 0; i < ARRAY_SIZE(news); i++)
		if (deleted[i] && !fx_tombstone(f, news[i][0]))
			fail_msg("%s was deleted after point %u: with look %u failing nobody knows", news[i][0], k, j);
	fx_free(f);
	return reached;
}

static void test_blind_to_deletion(void **state)
{
	unsigned deletions = 0;

	(void)state;
	for (unsigned k = 32; k < 88; k += 11)
		for (unsigned j = 1 + k % 3; blind_to_deletion(k, j, &deletions); j += 3)
			;
	assert_true(deletions > 100);
}

/* --- errors --- */

struct failure {
	unsigned at;
	int error;
	bool for_good; /* every call from there on */
	bool reached;
};

static void fail_at(unsigned point, const char *call, void *data)
{
	struct failure *w = data;

	refuse(point, call, NULL);
	if (point != w->at && !(w->for_good && point > w->at))
		return;
	w->reached = true;
	points.error = w->error;
}

/* A call fails: what is acknowledged is done, and what is not is, after recovery, as it was or
 * done. */
static bool failure_at(struct failure *w)
{
	struct fixture *f = fx_new_in(where_memory());
	int r;

	make_tree(f);
	make_items(f);
	points_arm(fail_at, w);
	r = apply_batch(&f->options, f->items, f->n);
	points_arm(NULL, NULL);
	for (size_t k = 0; k < f->n; k++) {
		struct apply_item *item = &f->items[k];

		if (r < 0)
			assert_int_equal(item->result, APPLY_FAILED);
		if (item->result == APPLY_DONE && item->theirs->live && !item->conflict)
			assert_true(fx_live(f, item->path));
		if (item->result == APPLY_DONE && !item->theirs->live)
			assert_true(fx_tombstone(f, item->path));
		if (r == 0 && item->result == APPLY_FAILED && strcmp(item->path, "new/deep/f") == 0)
			assert_false(fx_exists(f, item->path));
		if (item->staged && !item->consumed)
			(void)file_unlink(store_staging(fx_store(f)), item->staged);
	}
	assert_true(r < 0 || !w->for_good || !w->reached || fx_intents(f) == 0);
	if (r < 0 && fx_scan(f).events != 0) /* one that was at it at the time */
		fail_msg("what failed at point %u is taken for a user's doing before recovery has seen it", w->at);
	points_arm(refuse, NULL);
	OK(apply_recover(f->r, NULL));
	assert_int_equal(fx_staging(f), 0);
	assert_int_equal(fx_intents(f), 0);
	check_either(f);
	fx_quiet(f);
	fx_forget_items(f);
	f->counter = 0;
	make_items(f);
	fx_apply(f);
	fx_quiet(f);
	check_final(f, false);
	points_arm(NULL, NULL);
	fx_free(f);
	return w->reached;
}

static void test_error_at_every_point(void **state)
{
	struct failure w = {.reached = true};

	(void)state;
	for (unsigned k = 1; w.reached; k++) {
		w = (struct failure){.at = k, .error = k % 2 ? -ENOSPC : -EIO};
		failure_at(&w);
	}
}

static void test_errors_without_no_replace(void **state)
{
	struct failure w = {.reached = true};

	(void)state;
	refuses = true;
	for (unsigned k = 1; w.reached; k++) {
		w = (struct failure){.at = k, .error = -EIO};
		failure_at(&w);
	}
	refuses = false;
}

static void test_errors_from_every_point_on(void **state)
{
	struct failure w = {.reached = true};

	(void)state;
	for (unsigned k = 1; w.reached; k += 2) {
		w = (struct failure){.at = k, .error = -ENOSPC, .for_good = true};
		failure_at(&w);
	}
}

/* --- a user between the crash and the recovery --- */

static void child_apply_one(struct fixture *f, unsigned k)
{
	fx_open(f);
	fx_their_file(f, "a.txt", "new a", FX_AFTER);
	fx_their_file(f, "n.txt", "new n", FX_AFTER);
	apply_until(f, k);
}

static struct fixture *crashed(unsigned k, bool *ret_killed)
{
	struct fixture *f = fx_new_in(where_memory());

	fx_write(f, "a.txt", "old a");
	fx_scan(f);
	fx_close(f);
	*ret_killed = run_child(f, child_apply_one, k);
	return f;
}

static void recovered(struct fixture *f)
{
	fx_open(f);
	recovered_again(f);
}

/* What he writes is the newest, and stays; if the new version had been there, it descends from
 * that. */
static void test_edited_before_recovery(void **state)
{
	bool killed = true;

	(void)state;
	for (unsigned k = 1; killed; k++) {
		for (unsigned over = 0; over < 3; over++) {
			struct fixture *f = crashed(k, &killed);
			bool old_a = strcmp(fx_read(f, "a.txt"), "old a") == 0;
			bool new_n = fx_exists(f, "n.txt");

			if (over == 2) {
				(void)unlink(fx_path(f, "a.txt"));
				fx_mkdir(f, "a.txt");
				fx_write(f, "a.txt/x", "user a");
				fx_write(f, "n.txt", "user n");
			} else if (over) {
				fx_write(f, "tmp", "user a");
				OK(rename(fx_path(f, "tmp"), fx_path(f, "a.txt")));
				fx_write(f, "tmp", "user n");
				OK(rename(fx_path(f, "tmp"), fx_path(f, "n.txt")));
			} else {
				fx_write(f, "a.txt", "user a");
				fx_write(f, "n.txt", "user n");
			}
			recovered(f);
			assert_string_equal(fx_read(f, over == 2 ? "a.txt/x" : "a.txt"), "user a");
			assert_string_equal(fx_read(f, "n.txt"), "user n");
			assert_true(old_a || fx_found(f, "old a") > 0);
			fx_scan(f);
			fx_quiet(f);
			/* An edit of the new version, in place, by a new file or a directory, is its descendant: nothing to decide. */
			f->counter = 0;
			fx_their_file(f, "a.txt", "new a", FX_CONCURRENT_WINS);
			fx_their_file(f, "n.txt", "new n", FX_CONCURRENT_WINS);
			fx_apply(f);
			if (!old_a)
				assert_int_equal(f->items[0].result, APPLY_NONE);
			if (new_n)
				assert_int_equal(f->items[1].result, APPLY_NONE);
			assert_true(fx_found(f, "user a") > 0 && fx_found(f, "user n") > 0);
			fx_free(f);
		}
	}
}

static void child_put_aside(struct fixture *f, unsigned k)
{
	fx_open(f);
	fx_their_file(f, "w", "new w", FX_AFTER);
	apply_until(f, k);
}

static void child_replace_directory(struct fixture *f, unsigned k)
{
	fx_open(f);
	fx_their_symlink(f, "d", "target", FX_AFTER);
	apply_until(f, k);
}

/* He replaces what came in a directory's place, and his file gets the directory's inode: he knew what came. */
static void test_inode_used_again(void **state)
{
	unsigned replaced = 0;
	bool killed = true;

	(void)state;
	for (unsigned k = 1; killed; k++) {
		struct fixture *f = fx_new_in(where_memory());
		struct row row;
		struct stat st;

		fx_mkdir(f, "d");
		fx_scan(f);
		OK(stat(fx_path(f, "d"), &st));
		fx_close(f);
		killed = run_child(f, child_replace_directory, k);
		fx_open(f);
		if (fx_intents(f) > 0 && strcmp(fx_read(f, "d"), "-> target") == 0) {
			OK(unlink(fx_path(f, "d")));
			fx_write(f, "d", "user's");
			number_used_again = st.st_ino;
			recovered_again(f);
			number_used_again = 0;
			assert_true(fx_row(f, "d", &row));
			assert_int_not_equal(row.record.kind, RECORD_DIRECTORY);
			row_deinit(&row);
			replaced++;
		}
		fx_free(f);
	}
	assert_true(replaced > 0);
}

/* Modes that he gives a new conflict copy are seen, too. */
static void test_copy_touched_before_recovery(void **state)
{
	unsigned touched = 0;
	bool killed = true;

	(void)state;
	for (unsigned k = 1; killed; k++) {
		struct fixture *f = fx_new_in(where_memory());
		glob_t found;

		fx_mkdir(f, "w");
		fx_write(f, "w/y", "old w");
		fx_scan(f);
		fx_close(f);
		killed = run_child(f, child_put_aside, k);
		if (glob(fx_path(f, "w.sync-conflict-*"), 0, NULL, &found) == 0) {
			const char *name = strrchr(found.gl_pathv[0], '/') + 1;
			struct row row = {0};

			OK(chmod(found.gl_pathv[0], 0700));
			recovered(f);
			fx_scan(f);
			assert_true(fx_row(f, name, &row));
			assert_int_equal(row.record.mode, 0700);
			row_deinit(&row);
			touched++;
			globfree(&found);
		}
		fx_free(f);
	}
	assert_true(touched > 3);
}

/* What comes out cannot be looked at, and the process is killed some time. */
static void blind_and_kill(unsigned point, const char *call, void *data)
{
	unreadable = unreadable || strcmp(call, "file_exchange") == 0;
	kill_at(point, call, data);
}

static void child_put_below(struct fixture *f, unsigned k)
{
	fx_open(f);
	fx_their_file(f, "w/y", "new", FX_AFTER);
	points_arm(blind_and_kill, &k);
	(void)apply_batch(&f->options, f->items, f->n);
	points_arm(NULL, NULL);
	fx_close(f);
}

/*
 * A file has made way for a directory, and cannot be looked at: as long as its place is not decided, nothing is recorded below, or a user
 * who makes a file of the directory leaves rows there that no scan looks for.
 */
static void test_below_undecided(void **state)
{
	unsigned undecided = 0;
	bool killed = true;

	(void)state;
	for (unsigned k = 1; killed; k++) {
		struct fixture *f = fx_new_in(where_memory());
		struct row row;

		fx_write(f, "w", "ours");
		fx_scan(f);
		fx_close(f);
		killed = run_child(f, child_put_below, k);
		fx_open(f);
		unreadable = true;
		(void)apply_recover(f->r, NULL);
		unreadable = false;
		if (fx_row(f, "w", &row) && row_live(&row) && row.record.kind == RECORD_FILE)
			assert_false(fx_live(f, "w/y"));
		row_deinit(&row);
		if (strcmp(fx_read(f, "w/y"), "new") == 0) {
			undecided += fx_intents(f) > 0;
			OK(unlink(fx_path(f, "w/y")));
			OK(rmdir(fx_path(f, "w")));
			fx_write(f, "w", "a file again");
		}
		fx_close(f);
		recovered(f);
		fx_scan(f);
		assert_int_equal(fx_scan(f).events, 0);
		assert_true(fx_found(f, "ours") > 0);
		fx_free(f);
	}
	assert_true(undecided > 2);
}

static void child_put_new(struct fixture *f, unsigned k)
{
	fx_open(f);
	fx_their_file(f, "n", "new", FX_AFTER);
	apply_until(f, k);
}

/* What just arrived, and could not be looked at, is deleted: a session that offers it once more does not put it there again. */
static void test_deleted_while_undecided(void **state)
{
	unsigned deleted = 0;
	bool killed = true;

	(void)state;
	for (unsigned k = 1; killed; k++) {
		struct fixture *f = fx_new_in(where_memory());

		fx_close(f);
		killed = run_child(f, child_put_new, k);
		fx_open(f);
		looks = 0;
		blind_at = 2; /* the first one is at the root */
		OK(apply_recover(f->r, NULL));
		blind_at = 0;
		if (fx_exists(f, "n") && replica_unfinished(f->r, "n")) {
			OK(unlink(fx_path(f, "n")));
			fx_their_file(f, "n", "new", FX_AFTER);
			OK(apply_batch(&f->options, f->items, f->n));
			assert_int_equal(f->items[0].result, APPLY_CHANGED);
			assert_false(fx_exists(f, "n"));
			OK(file_unlink(store_staging(fx_store(f)), f->items[0].staged));
			recovered_again(f);
			assert_true(fx_tombstone(f, "n"));
			deleted++;
		}
		fx_free(f);
	}
	assert_true(deleted > 0);
}

static void note_first_commit(unsigned point, const char *call, void *data)
{
	bool *w = data; /* synced, committed without */

	(void)point;
	w[0] = w[0] || strcmp(call, "file_syncfs") == 0;
	w[1] = w[1] || (!w[0] && strcmp(call, "index_commit") == 0);
}

/* The process was killed, and what it had done until then is in memory only: power may be lost yet. */
static void test_durable_before_it_is_recorded(void **state)
{
	unsigned found = 0;
	bool killed = true;

	(void)state;
	for (unsigned k = 1; killed; k++) {
		struct fixture *f = crashed(k, &killed);
		bool was[2] = {false};

		fx_open(f);
		if (fx_intents(f)) {
			points_arm(note_first_commit, was);
			OK(apply_recover(f->r, NULL));
			points_arm(NULL, NULL);
			assert_true(was[0] && !was[1]);
			found++;
		}
		fx_free(f);
	}
	assert_true(found > 5);
}

/* What he deletes stays deleted if it was the new version, and is not recorded as deleted if it was
 * none yet. */
static void test_deleted_before_recovery(void **state)
{
	bool killed = true;

	(void)state;
	for (unsigned k = 1; killed; k++) {
		struct fixture *f = crashed(k, &killed);
		bool new_a = strcmp(fx_read(f, "a.txt"), "new a") == 0;
		bool new_n = fx_exists(f, "n.txt");

		OK(unlink(fx_path(f, "a.txt")));
		if (new_n)
			OK(unlink(fx_path(f, "n.txt")));
		recovered(f);
		if (!new_n)
			assert_int_equal(fx_placed(f, "n.txt"), -1);
		fx_scan(f);
		assert_true(fx_tombstone(f, "a.txt"));
		assert_true(!new_n || fx_tombstone(f, "n.txt"));
		fx_quiet(f);
		f->counter = 0;
		fx_their_file(f, "a.txt", "new a", FX_CONCURRENT_WINS);
		fx_their_file(f, "n.txt", "new n", FX_CONCURRENT_WINS);
		fx_apply(f);
		assert_true(new_a != fx_exists(f, "a.txt"));
		assert_true(new_n != fx_exists(f, "n.txt"));
		fx_free(f);
	}
}

/* Somebody emptied staging meanwhile: that is no user's deletion of what never got further. */
static void test_staging_wiped(void **state)
{
	bool killed = true;

	(void)state;
	for (unsigned k = 1; killed; k++) {
		struct fixture *f = crashed(k, &killed);
		bool new_n = fx_exists(f, "n.txt");
		char command[400];

		snprintf(command, sizeof(command), "rm -rf %s/.syncd/staging/*", f->root);
		OK(system(command));
		recovered(f);
		assert_true(fx_exists(f, "a.txt"));
		assert_int_equal(fx_exists(f, "n.txt"), new_n);
		assert_false(fx_tombstone(f, "a.txt"));
		assert_false(fx_tombstone(f, "n.txt"));
		fx_quiet(f);
		fx_free(f);
	}
}

/* --- no order among names --- */

struct undo {
	struct fixture *f;
	unsigned which, at; /* bits: of the directories, and of what took a directory's place, which are back in staging */
	unsigned undone;
};

/* Its name was not durable yet; that of what is in it was. */
static int undo_landing(uint64_t batch, uint32_t number, const void *p, size_t n, void *data)
{
	struct intent i cleanup(intent_deinit) = {0};
	struct cursor c = cursor_over(p, n);
	struct undo *u = data;
	char staged[300];
	struct stat st;

	(void)batch, (void)number;
	intent_get(&c, &i);
	OK(cursor_finish(&c));
	if (i.op != INTENT_PUT || (i.new_kind != RECORD_DIRECTORY && i.old_kind != RECORD_DIRECTORY) || lstat(fx_path(u->f, i.path), &st) != 0 ||
		st.st_ino != i.staged_stamp.ino || !(u->which >> u->at++ & 1))
		return 0;
	snprintf(staged, sizeof(staged), ".syncd/staging/%s", i.staged);
	if (fx_exists(u->f, staged))
		OK(renameat2(AT_FDCWD, fx_path(u->f, i.path), AT_FDCWD, fx_path(u->f, staged), RENAME_EXCHANGE));
	else if (i.fate == INTENT_NO_OLD || u->f->no_exchange)
		OK(rename(fx_path(u->f, i.path), fx_path(u->f, staged)));
	u->undone++;
	return 0;
}

/* false: the batch has no point k. which: see `undo`, shallow first. A user writes a file at `taken` (or NULL). */
static bool crash_without_order(bool exchange, unsigned k, unsigned which, const char *taken, unsigned *undone)
{
	bool killed;
	struct fixture *f = cut_short(where_memory(), exchange, k, &killed);
	struct undo u = {.f = f, .which = which};
	struct index_txn *t = NULL;

	fx_open(f);
	OK(index_begin_read(replica_index(f->r), &t));
	OK(index_intents(t, undo_landing, &u));
	index_abort(t);
	*undone += u.undone;
	taken = taken && !fx_exists(f, taken) ? taken : NULL;
	if (taken)
		fx_write(f, taken, "taken");
	recovered_again(f);
	assert_false(fx_tombstone(f, "new/deep/f"));
	assert_false(fx_tombstone(f, "m/n"));
	assert_false(fx_tombstone(f, "q/r"));
	if (taken) {
		fx_scan(f);
		assert_true(fx_found(f, "taken") > 0);
		assert_false(fx_tombstone(f, "new/deep/f"));
		fx_free(f);
		return killed;
	}
	comes_to_its_end(f);
	return killed;
}

static void test_directories_back_in_staging(void **state)
{
	unsigned undone = 0;

	(void)state;
	for (unsigned k = 1; crash_without_order(true, k, 1 + k % 15, k % 4 ? NULL : k % 8 ? "new" : "q", &undone); k++)
		;
	assert_true(undone > 20);
}

/* Without exchange what came out may be in trash by then, or removed: the place is empty, and no user did that. */
static void test_places_left_empty(void **state)
{
	unsigned undone = 0;

	(void)state;
	for (unsigned k = 1; crash_without_order(false, k, 1 + k % 63, NULL, &undone); k++)
		;
	assert_true(undone > 20);
}

/* How power loss may cut the way of what is put aside, displaced → conflict name, where a rename makes the new name first. */
enum cut { CUT_TWICE, CUT_BOTH_NAMES, CUT_ONE_NAME };

struct cutting {
	struct fixture *f;
	enum cut how;
	unsigned cut;
};

static bool is_at(const struct fixture *f, const char *path, uint64_t ino)
{
	struct stat st;

	return lstat(fx_path(f, path), &st) == 0 && st.st_ino == ino;
}

static int cut_aside(uint64_t batch, uint32_t number, const void *p, size_t n, void *data)
{
	struct intent i cleanup(intent_deinit) = {0};
	struct cursor c = cursor_over(p, n);
	struct cutting *x = data;
	char staged[300], displaced[300];
	const char *from;

	(void)batch, (void)number;
	intent_get(&c, &i);
	OK(cursor_finish(&c));
	if (i.fate != INTENT_ASIDE)
		return 0;
	from = x->how == CUT_TWICE ? displaced : i.path;
	snprintf(staged, sizeof(staged), ".syncd/staging/%s", i.staged);
	snprintf(displaced, sizeof(displaced), ".syncd/staging/%s", i.displaced);
	if (!is_at(x->f, from, i.old.ino) || (x->how != CUT_TWICE && !is_at(x->f, staged, i.staged_stamp.ino)))
		return 0;
	if (x->how == CUT_ONE_NAME)
		OK(rename(fx_path(x->f, from), fx_path(x->f, i.aside)));
	else
		OK(link(fx_path(x->f, from), fx_path(x->f, i.aside)));
	x->cut++;
	return 0;
}

/* false: the batch has no point k. */
static bool crash_with_two_names(unsigned k, enum cut how, unsigned *cut)
{
	bool killed;
	struct fixture *f = cut_short(where_memory(), false, k, &killed);
	struct cutting x = {.f = f, .how = how};
	struct index_txn *t = NULL;

	fx_open(f);
	OK(index_begin_read(replica_index(f->r), &t));
	OK(index_intents(t, cut_aside, &x));
	index_abort(t);
	*cut += x.cut;
	recovered_again(f);
	comes_to_its_end(f);
	return killed;
}

static void test_renames_that_leave_both_names(void **state)
{
	(void)state;
	for (enum cut how = CUT_TWICE; how <= CUT_ONE_NAME; how++) {
		unsigned cut = 0;

		for (unsigned k = 1; crash_with_two_names(k, how, &cut); k++)
			;
		assert_true(cut > 2);
	}
}

/* What came out, and can't be read now, is not taken for a user's: it waits. */
static void test_unreadable_for_a_while(void **state)
{
	unsigned waited = 0;
	bool killed = true;

	(void)state;
	for (unsigned k = 1; killed; k++) {
		struct fixture *f = cut_short(where_memory(), true, k, &killed);

		fx_open(f);
		unreadable = true;
		OK(apply_recover(f->r, NULL));
		unreadable = false;
		waited += fx_intents(f) > 0;
		recovered_again(f);
		assert_int_equal(fx_find(f, "old a").asides, 0);
		assert_int_equal(fx_find(f, "old b").asides, 0);
		comes_to_its_end(f);
	}
	assert_true(waited > 5);
}

/* The index is gone, and with it the intents: what is in staging may be the only copy of something.
 */
static void test_index_lost(void **state)
{
	bool killed = true;

	(void)state;
	for (unsigned k = 1; killed; k++) {
		struct fixture *f = crashed(k, &killed);
		char command[400];

		snprintf(command, sizeof(command), "rm -rf %s/.syncd/index", f->root);
		OK(system(command));
		recovered(f);
		assert_true(fx_found(f, "old a") > 0);
		fx_free(f);
	}
}

/* An end while the file system was probed. */
/* What a transfer may go on with stays, but not for ever, and not under an index that does not await it. */
static void test_partial_left(void **state)
{
	struct fixture *f = fx_new_in(where_memory());
	struct timespec times[] = {{.tv_nsec = UTIME_OMIT}, {.tv_sec = time(NULL) - 4 * 24 * 3600}};

	(void)state;
	fx_write(f, ".syncd/staging/partial-0123", "half of a content");
	fx_write(f, ".syncd/staging/partial-4567", "half of an old one");
	OK(utimensat(AT_FDCWD, fx_path(f, ".syncd/staging/partial-4567"), times, 0));
	fx_write(f, ".syncd/staging/0123456789abcdef", "a whole one");
	OK(apply_recover(f->r, NULL));
	assert_int_equal(fx_staging(f), 1);
	assert_true(fx_exists(f, ".syncd/staging/partial-0123"));
	fx_free(f);
}

static void test_probe_left(void **state)
{
	struct fixture *f = fx_new();

	(void)state;
	OK(mkdir(fx_path(f, ".syncd/staging/" FILE_PROBE_PREFIX "0123456789abcdef"), 0700));
	fx_write(f, ".syncd/staging/" FILE_PROBE_PREFIX "0123456789abcdef/from", "x");
	OK(apply_recover(f->r, NULL));
	assert_int_equal(fx_staging(f), 0);
	fx_free(f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_every_point),
		cmocka_unit_test(test_without_exchange),
		cmocka_unit_test(test_without_no_replace),
		cmocka_unit_test(test_some_points_on_disk),
		cmocka_unit_test(test_symlinks_are_durable),
		cmocka_unit_test(test_blind_recovery),
		cmocka_unit_test(test_blind_to_deletion),
		cmocka_unit_test(test_error_at_every_point),
		cmocka_unit_test(test_errors_without_no_replace),
		cmocka_unit_test(test_errors_from_every_point_on),
		cmocka_unit_test(test_edited_before_recovery),
		cmocka_unit_test(test_inode_used_again),
		cmocka_unit_test(test_copy_touched_before_recovery),
		cmocka_unit_test(test_below_undecided),
		cmocka_unit_test(test_deleted_while_undecided),
		cmocka_unit_test(test_durable_before_it_is_recorded),
		cmocka_unit_test(test_deleted_before_recovery),
		cmocka_unit_test(test_staging_wiped),
		cmocka_unit_test(test_directories_back_in_staging),
		cmocka_unit_test(test_places_left_empty),
		cmocka_unit_test(test_renames_that_leave_both_names),
		cmocka_unit_test(test_unreadable_for_a_while),
		cmocka_unit_test(test_index_lost),
		cmocka_unit_test(test_partial_left),
		cmocka_unit_test(test_probe_left),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
