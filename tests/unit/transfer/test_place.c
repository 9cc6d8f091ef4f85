/*
 * tests/unit/transfer/test_place.c — a user steps in before the k-th call that looks at the disk or
 * changes it, for every k and every kind of deed: whatever he leaves is found afterwards, is what
 * the index says after the next scan, and nothing outside is touched.
 */
#define POINTS_LOOKS
#include "tests/unit/transfer/apply_fixture.h"
#include "tests/unit/transfer/apply_points.h"
#include "tests/unit/where.h"

#include <sys/wait.h>

enum deed { EDIT, REPLACE, DELETE, CHMOD, DIRECTORY, BECOMES_LINK, DEEDS };

struct step {
	struct fixture *f;
	const char *path;
	enum deed deed;
	unsigned at;
	bool reached, done;
};

static void write_over(struct step *s)
{
	fx_write(s->f, "tmp", "user");
	s->done = rename(fx_path(s->f, "tmp"), fx_path(s->f, s->path)) == 0;
	if (!s->done)
		OK(unlink(fx_path(s->f, "tmp")));
}

/* In place; where a lease is held a user would have to wait. */
static void write_into(struct step *s)
{
	int fd = open(fx_path(s->f, s->path), O_WRONLY | O_NONBLOCK | O_NOFOLLOW);

	if (fd < 0)
		return;
	assert_int_equal(pwrite(fd, "user", 4, 0), 4);
	OK(ftruncate(fd, 4));
	close(fd);
	s->done = true;
}

static void remove_path(struct step *s)
{
	const char *path = fx_path(s->f, s->path);

	s->done = unlink(path) == 0 || rmdir(path) == 0;
}

static void step_in(unsigned point, const char *call, void *data)
{
	struct step *s = data;

	if (point != s->at)
		return;
	s->reached = true;
	/* The one moment that replacing without exchange leaves open: see DESIGN §8, tiers. */
	if (strcmp(call, "file_rename_replace") == 0)
		return;
	switch (s->deed) {
	case EDIT:
		write_into(s);
		break;
	case REPLACE:
		write_over(s);
		break;
	case DELETE:
		remove_path(s);
		break;
	case CHMOD:
		s->done = fx_read(s->f, s->path)[0] != '-' &&
			  chmod(fx_path(s->f, s->path), 0604) == 0;
		break;
	case DIRECTORY:
		remove_path(s);
		s->done = mkdir(fx_path(s->f, s->path), 0755) == 0;
		if (s->done) {
			char below[300];

			snprintf(below, sizeof(below), "%s/below", s->path);
			fx_write(s->f, below, "user");
		}
		break;
	default:
		remove_path(s);
		s->done = symlink("user-target", fx_path(s->f, s->path)) == 0;
		break;
	}
}

static bool leaves_content(enum deed deed)
{
	return deed == EDIT || deed == REPLACE || deed == DIRECTORY;
}

static unsigned links;

static int count_link(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	char target[100];
	ssize_t n = S_ISLNK(st->st_mode) ? readlink(path, target, sizeof(target)) : -1;

	(void)type, (void)ftw;
	links += n == 11 && memcmp(target, "user-target", 11) == 0;
	return 0;
}

static unsigned find_links(struct fixture *f)
{
	links = 0;
	nftw(f->root, count_link, 16, FTW_PHYS);
	return links;
}

/* The mode that a user gave is known, whenever he gave it. */
static void check_mode(struct fixture *f, const char *path)
{
	struct stat st;
	struct row row;

	if (lstat(fx_path(f, path), &st) != 0)
		return;
	assert_true(fx_row(f, path, &row));
	if (row_live(&row) && row.record.mode != (st.st_mode & 07777))
		fail_msg("%s: mode %o is recorded as %o", path, (unsigned)st.st_mode & 07777,
			row.record.mode);
	row_deinit(&row);
}

typedef void prepare(struct fixture *f);

/* false: the batch has no such point. kept: a content of before that must be somewhere; "" for
 * none. */
static bool no_exchange;

static struct fixture *fixture_new(void)
{
	struct fixture *f = fx_new_in(where_memory());

	if (no_exchange) {
		fx_close(f);
		f->no_exchange = true;
		fx_open(f);
	}
	return f;
}

static bool once(prepare *tree, prepare *items, const char *path, const char *kept, enum deed deed,
	unsigned at)
{
	struct fixture *f = fixture_new();
	struct step s = {.f = f, .path = path, .deed = deed, .at = at};
	struct fx_search user;

	tree(f);
	fx_scan(f);
	items(f);
	points_arm(step_in, &s);
	OK(apply_batch(&f->options, f->items, f->n));
	points_arm(NULL, NULL);
	for (size_t k = 0; k < f->n; k++)
		if (f->items[k].staged && !f->items[k].consumed) {
			int ur = file_unlink(store_staging(fx_store(f)), f->items[k].staged);
			if (ur)
				fail_msg("deed %d at %u item %zu result %s err %d unlink %d", deed,
					at, k, apply_result_name(f->items[k].result),
					f->items[k].error, ur);
		}
	assert_int_equal(fx_intents(f), 0);
	assert_int_equal(fx_staging(f), 0);
	/* What he left is not for trash either: it is the newest. */
	user = fx_find(f, "user");
	if (s.done && leaves_content(deed) && user.in_place + user.asides == 0)
		fail_msg("deed %d at point %u of %s: lost", deed, at, path);
	if (s.done && deed == BECOMES_LINK && find_links(f) == 0)
		fail_msg("the link at point %u of %s: lost", at, path);
	if (kept[0] && !(s.done && deed != CHMOD) && fx_found(f, kept) == 0)
		fail_msg("deed %d at point %u of %s: lost what was there", deed, at, path);
	if (s.done && (deed == EDIT || deed == REPLACE) && !fx_exists(f, path))
		fail_msg("deed %d at point %u of %s: the path is gone", deed, at, path);
	fx_scan(f);
	fx_quiet(f);
	if (s.done && deed == CHMOD)
		check_mode(f, path);
	if (s.done && deed == DELETE && fx_exists(f, path) && s.at == 1)
		fail_msg("deleted, and back");
	fx_free(f);
	return s.reached;
}

static void everywhere(prepare *tree, prepare *items, const char *path, const char *kept)
{
	for (enum deed deed = 0; deed < DEEDS; deed++)
		for (unsigned at = 1; once(tree, items, path, kept, deed, at); at++)
			;
}

static void tree_file(struct fixture *f)
{
	fx_mkdir(f, "d");
	fx_write(f, "d/a.txt", "old a");
}

static void replace_file(struct fixture *f)
{
	fx_their_file(f, "d/a.txt", "new a", FX_AFTER);
}

static void delete_file(struct fixture *f)
{
	fx_their_deletion(f, "d/a.txt");
}

static void conflict_file(struct fixture *f)
{
	fx_their_file(f, "d/a.txt", "new a", FX_CONCURRENT_WINS);
}

static void touch_file(struct fixture *f)
{
	fx_their_touch(f, "d/a.txt", 0600, INT64_C(1600000000) * CLOCK_NS_PER_S);
}

static void new_file(struct fixture *f)
{
	fx_their_file(f, "d/new", "new", FX_AFTER);
}

static void tree_directory(struct fixture *f)
{
	fx_mkdir(f, "k");
}

static void directory_to_file(struct fixture *f)
{
	fx_their_file(f, "k", "new k", FX_AFTER);
}

static void delete_directory(struct fixture *f)
{
	fx_their_deletion(f, "k");
}

static void file_to_directory(struct fixture *f)
{
	fx_their_directory(f, "d/a.txt", 0755, FX_AFTER);
	fx_their_file(f, "d/a.txt/x", "new x", FX_AFTER);
}

static void new_directory(struct fixture *f)
{
	fx_their_directory(f, "d/new", 0755, FX_AFTER);
	fx_their_directory(f, "d/new/sub", 0750, FX_AFTER);
	fx_their_file(f, "d/new/sub/x", "new x", FX_AFTER);
}

static void test_replace(void **state)
{
	(void)state;
	everywhere(tree_file, replace_file, "d/a.txt", "old a");
}

static void test_delete(void **state)
{
	(void)state;
	everywhere(tree_file, delete_file, "d/a.txt", "old a");
}

static void test_conflict(void **state)
{
	(void)state;
	everywhere(tree_file, conflict_file, "d/a.txt", "old a");
}

static void test_touch(void **state)
{
	(void)state;
	everywhere(tree_file, touch_file, "d/a.txt", "old a");
}

static void test_new(void **state)
{
	(void)state;
	everywhere(tree_file, new_file, "d/new", "old a");
}

static void test_directories(void **state)
{
	(void)state;
	everywhere(tree_directory, directory_to_file, "k", "");
	everywhere(tree_directory, delete_directory, "k", "");
	everywhere(tree_file, file_to_directory, "d/a.txt", "old a");
}

static void written_or_replaced(prepare *items)
{
	for (enum deed deed = EDIT; deed <= REPLACE; deed++)
		for (unsigned at = 1; once(tree_file, items, "d/a.txt", "old a", deed, at); at++)
			;
}

static void test_without_leases(void **state)
{
	(void)state;
	points.no_lease = true;
	written_or_replaced(replace_file);
	written_or_replaced(delete_file);
	points.no_lease = false;
}

static void test_without_exchange(void **state)
{
	(void)state;
	no_exchange = true;
	written_or_replaced(replace_file);
	written_or_replaced(conflict_file);
	written_or_replaced(file_to_directory);
	no_exchange = false;
}

/* Who waits to write while a lease is held gets what was in place: it is his, then. */
static void open_for_writing(unsigned point, const char *call, void *data)
{
	struct step *s = data;
	pid_t child;
	int fd;

	(void)point;
	if (s->reached ||
		(strcmp(call, "file_exchange") != 0 && strcmp(call, "file_rename_noreplace") != 0))
		return;
	s->reached = true;
	child = fork();
	assert_true(child >= 0);
	if (child == 0) {
		fd = open(fx_path(s->f, s->path), O_WRONLY | O_TRUNC);
		_exit(fd < 0 || write(fd, "user", 4) != 4);
	}
	usleep(50000);
}

static void test_waiting_writer(void **state)
{
	prepare *const items[] = {replace_file, delete_file, conflict_file};

	(void)state;
	for (size_t k = 0; k < ARRAY_SIZE(items); k++) {
		struct fixture *f = fx_new_in(where_memory());
		struct step s = {.f = f, .path = "d/a.txt"};
		struct fx_search user;
		int status;

		if (!store_abilities(fx_store(f))->lease)
			skip();
		tree_file(f);
		fx_scan(f);
		items[k](f);
		points_arm(open_for_writing, &s);
		OK(fx_apply_raw(f));
		points_arm(NULL, NULL);
		assert_true(s.reached);
		assert_true(wait(&status) > 0);
		OK(status);
		user = fx_find(f, "user");
		assert_int_equal(user.in_place + user.asides, 1);
		fx_scan(f);
		fx_quiet(f);
		fx_free(f);
	}
}

/* As above, but of what has just come, before its stamp is taken. */
static void open_what_came(unsigned point, const char *call, void *data)
{
	struct step *s = data;

	if (s->done && strcmp(call, "file_stat_at") == 0) {
		s->done = s->reached = false;
		open_for_writing(point, "file_exchange", data);
	} else if (!s->reached) {
		s->done = strcmp(call, "file_exchange") == 0 || strcmp(call, "file_rename_noreplace") == 0;
		s->reached = s->done;
	}
}

/* What has come is known to be what was sent, so that no scan reads it again; but not if somebody could write to it meanwhile. */
static void test_exact(void **state)
{
	prepare *const items[] = {replace_file, conflict_file, replace_file, conflict_file};

	(void)state;
	for (size_t k = 0; k < ARRAY_SIZE(items); k++) {
		struct fixture *f = fx_new_in(where_memory());
		struct step s = {.f = f, .path = "d/a.txt"};
		bool waits = k >= 2;
		struct row row;
		int status;

		if (!store_abilities(fx_store(f))->lease || !store_abilities(fx_store(f))->exact_times)
			skip();
		tree_file(f);
		fx_scan(f);
		items[k](f);
		points_arm(waits ? open_what_came : NULL, &s);
		OK(fx_apply_raw(f));
		points_arm(NULL, NULL);
		assert_true(s.reached == waits);
		if (waits)
			assert_true(wait(&status) > 0 && status == 0);
		assert_true(fx_row(f, "d/a.txt", &row));
		assert_true(row.stamp.exact != waits);
		row_deinit(&row);
		assert_int_equal(fx_find(f, "user").in_place, waits);
		fx_scan(f);
		fx_quiet(f);
		fx_free(f);
	}
}

/* A file that appears in a directory that is to go, or to become a file. */
static void drop_in(unsigned point, const char *call, void *data)
{
	struct step *s = data;
	char below[300];
	int fd;

	(void)call;
	if (point != s->at)
		return;
	s->reached = true;
	snprintf(below, sizeof(below), "%s/user", s->path);
	fd = open(fx_path(s->f, below), O_WRONLY | O_CREAT | O_EXCL, 0644);
	if (fd < 0)
		return;
	assert_int_equal(write(fd, "user", 4), 4);
	close(fd);
	s->done = true;
}

static void test_dropped_in(void **state)
{
	prepare *const items[] = {directory_to_file, delete_directory};

	(void)state;
	for (size_t k = 0; k < 2; k++) {
		bool reached = true;

		for (unsigned at = 1; reached; at++) {
			struct fixture *f = fx_new_in(where_memory());
			struct step s = {.f = f, .path = "k", .at = at};

			tree_directory(f);
			fx_scan(f);
			items[k](f);
			points_arm(drop_in, &s);
			OK(fx_apply_raw(f));
			points_arm(NULL, NULL);
			assert_true(!s.done || fx_found(f, "user") == 1);
			assert_int_equal(fx_staging(f), 0);
			fx_scan(f);
			fx_quiet(f);
			assert_true(!s.done || fx_found(f, "user") == 1);
			reached = s.reached;
			fx_free(f);
		}
	}
}

/* One call of the batch is refused: afterwards nothing looks like a user's doing. */
struct refusal {
	const char *deed;
	unsigned at;
	int error;
	const char *call; /* the one that was refused, or NULL */
	unsigned wrong;
};

static void refuse(unsigned point, const char *call, void *data)
{
	struct refusal *w = data;

	if (point != w->at)
		return;
	w->call = call;
	if (strcmp(call, "file_lease_release") != 0) /* that would be a user who waited to write */
		points.error = w->error;
}

static unsigned copies;

static int count_copy(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	(void)st, (void)type;
	copies += strstr(path + ftw->base, ".sync-conflict-") && !strstr(path, "/.syncd/");
	return 0;
}

static bool refused_at(struct refusal *w, prepare *tree, prepare *items, bool conflict)
{
	struct fixture *f = fixture_new();
	const char *wrong = NULL;

	w->call = NULL;
	tree(f);
	fx_scan(f);
	items(f);
	points_arm(refuse, w);
	(void)fx_apply_raw(f);
	points_arm(NULL, NULL);
	OK(apply_recover(f->r, NULL));
	copies = 0;
	nftw(f->root, count_copy, 16, FTW_PHYS);
	if (copies > conflict)
		wrong = "a conflict copy that no user made";
	else if (conflict && copies != fx_find(f, "new a").in_place)
		wrong = "the loser of a conflict is not beside the winner";
	else if (fx_intents(f) != 0 || fx_staging(f) != 0)
		wrong = "is not recovered";
	else if (fx_scan(f).events > conflict) /* a copy that could not be looked at is found by the scan */
		wrong = "looks like a user's doing";
	if (wrong) {
		print_error("%s, point %u, %s, %d: %s\n", w->deed, w->at, w->call, w->error, wrong);
		w->wrong++;
	}
	fx_free(f);
	return w->call;
}

static unsigned refused_everywhere(void)
{
#define DEED(tree, items) {tree, items, #items}
	static const struct {
		prepare *tree, *items;
		const char *name;
	} deeds[] = {
		DEED(tree_file, replace_file),
		DEED(tree_file, delete_file),
		DEED(tree_file, conflict_file),
		DEED(tree_file, touch_file),
		DEED(tree_file, new_file),
		DEED(tree_file, new_directory),
		DEED(tree_file, file_to_directory),
		DEED(tree_directory, directory_to_file),
		DEED(tree_directory, delete_directory),
	};
	const int errors[] = {-EIO, FILE_BUSY, FILE_DENIED};
	struct refusal w = {0};

	for (size_t k = 0; k < ARRAY_SIZE(deeds); k++)
		for (size_t e = 0; e < ARRAY_SIZE(errors); e++) {
			w.deed = deeds[k].name;
			w.error = errors[e];
			for (w.at = 1; refused_at(&w, deeds[k].tree, deeds[k].items, deeds[k].items == conflict_file); w.at++)
				;
		}
	return w.wrong;
}

static void test_refused(void **state)
{
	(void)state;
	assert_int_equal(refused_everywhere(), 0);
	no_exchange = true;
	assert_int_equal(refused_everywhere(), 0);
	no_exchange = false;
}

/* The directory becomes a symlink to a place outside: nothing there is changed. */
static void swap_parent(unsigned point, const char *call, void *data)
{
	struct step *s = data;

	(void)call;
	if (point != s->at)
		return;
	s->reached = true;
	OK(rename(fx_path(s->f, "d"), fx_path(s->f, "moved")));
	OK(symlink(s->path, fx_path(s->f, "d")));
	s->done = true;
}

static void test_swapped_parent(void **state)
{
	prepare *const items[] = {
		replace_file, delete_file, conflict_file, touch_file, new_file, file_to_directory};
	char outside[64], victim[128];
	struct stat before, after;

	(void)state;
	snprintf(outside, sizeof(outside), "%.40s/syncd-outside-XXXXXX", where_disk());
	assert_non_null(mkdtemp(outside));
	snprintf(victim, sizeof(victim), "%s/a.txt", outside);
	fx_write_raw(victim, "outside");
	OK(chmod(victim, 0444));
	OK(stat(victim, &before));
	for (size_t k = 0; k < ARRAY_SIZE(items); k++) {
		bool reached = true;

		for (unsigned at = 1; reached; at++) {
			struct fixture *f = fx_new_in(where_memory());
			struct step s = {.f = f, .path = outside, .at = at};

			tree_file(f);
			fx_scan(f);
			items[k](f);
			points_arm(swap_parent, &s);
			OK(fx_apply_raw(f));
			points_arm(NULL, NULL);
			assert_true(fx_found(f, "old a") > 0);
			fx_scan(f);
			OK(stat(victim, &after));
			assert_int_equal(after.st_ino, before.st_ino);
			assert_int_equal(after.st_mode, before.st_mode);
			assert_memory_equal(&after.st_ctim, &before.st_ctim, sizeof(after.st_ctim));
			reached = s.reached;
			fx_free(f);
		}
	}
	OK(unlink(victim));
	OK(rmdir(outside)); /* and nothing else is in it */
}

/* A file is there, and a batch with one item; the step is called with each point. */
static void each_point(prepare *item, void (*step)(unsigned point, const char *call, void *data),
	void (*check)(struct fixture *f, const struct step *s))
{
	bool reached = true;

	for (unsigned at = 1; reached; at++) {
		struct fixture *f = fx_new_in(where_memory());
		struct step s = {.f = f, .path = "d/a.txt", .at = at};

		tree_file(f);
		fx_scan(f);
		item(f);
		points_arm(step, &s);
		OK(fx_apply_raw(f));
		points_arm(NULL, NULL);
		check(f, &s);
		reached = s.reached;
		fx_free(f);
	}
}

/* Somebody tidies up what is ours, while something is on its way there. */
static void empty_trash(unsigned point, const char *call, void *data)
{
	struct step *s = data;

	(void)call;
	if (point != s->at)
		return;
	s->reached = true;
	(void)nftw(fx_path(s->f, ".syncd/trash"), fx_remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

static void check_emptied_trash(struct fixture *f, const struct step *s)
{
	(void)s;
	assert_int_equal(f->items[0].result, APPLY_DONE);
	assert_int_equal(fx_intents(f), 0);
	assert_int_equal(fx_staging(f), 0);
	fx_quiet(f);
}

static void test_emptied_trash(void **state)
{
	(void)state;
	each_point(replace_file, empty_trash, check_emptied_trash);
	each_point(delete_file, empty_trash, check_emptied_trash);
	each_point(file_to_directory, empty_trash, check_emptied_trash);
}

/* What he made where something new belongs, and takes away again in that moment, is no other spelling of it. */
static void take_away(unsigned point, const char *call, void *data)
{
	struct step *s = data;

	(void)call;
	if (point != s->at)
		return;
	s->reached = true;
	(void)unlink(fx_path(s->f, "d/new"));
}

static void new_file_over_user(struct fixture *f)
{
	new_file(f);
	fx_write(f, "d/new", "user");
}

static void check_taken_away(struct fixture *f, const struct step *s)
{
	if (f->items[0].result != APPLY_DONE && f->items[0].result != APPLY_CHANGED)
		fail_msg("point %u: %s", s->at, apply_result_name(f->items[0].result));
}

static void test_taken_away(void **state)
{
	(void)state;
	each_point(new_file_over_user, take_away, check_taken_away);
}

/* A private directory of his own stands where one was just made: its mode is not taken for the one that is still to be set. */
static void put_private(unsigned point, const char *call, void *data)
{
	struct step *s = data;

	(void)call;
	if (point != s->at)
		return;
	s->reached = true;
	s->done = rename(fx_path(s->f, "d/new"), fx_path(s->f, "moved")) == 0;
	if (s->done)
		OK(mkdir(fx_path(s->f, "d/new"), 0700));
}

static void check_private_directory(struct fixture *f, const struct step *s)
{
	(void)s;
	fx_scan(f);
	fx_quiet(f);
	check_mode(f, "d/new");
}

static void test_private_directory(void **state)
{
	(void)state;
	each_point(new_directory, put_private, check_private_directory);
}

/* As on a file system that only knows renaming that replaces. */
static bool reaches_where_renaming_replaces(struct step *s, unsigned point, const char *call)
{
	if (strcmp(call, "file_rename_noreplace") == 0 || strcmp(call, "file_exchange") == 0)
		points.error = FILE_UNSUPPORTED;
	s->reached = s->reached || point == s->at;
	return point == s->at;
}

/* Where renaming may replace, what comes out has two names for a moment. The user takes the first one away. */
static void remove_first_name(unsigned point, const char *call, void *data)
{
	struct step *s = data;

	if (!reaches_where_renaming_replaces(s, point, call))
		return;
	remove_path(s);
}

static void check_first_name(struct fixture *f, const struct step *s)
{
	(void)s;
	assert_int_equal(fx_staging(f), 0);
	fx_scan(f);
	fx_quiet(f);
}

static void test_first_name_removed(void **state)
{
	(void)state;
	each_point(replace_file, remove_first_name, check_first_name);
	each_point(delete_file, remove_first_name, check_first_name);
	each_point(file_to_directory, remove_first_name, check_first_name);
}

/* … or its directory keeps it. */
static void keep_first_name(unsigned point, const char *call, void *data)
{
	struct step *s = data;

	if (!reaches_where_renaming_replaces(s, point, call))
		return;
	if (strcmp(call, "file_unlink") == 0 && fx_exists(s->f, s->path))
		points.error = FILE_DENIED;
}

static void check_kept(struct fixture *f, const struct step *s)
{
	(void)s;
	assert_true(fx_exists(f, "d/a.txt") || f->items[0].result == APPLY_DONE);
	check_first_name(f, s);
}

static void test_first_name_kept(void **state)
{
	(void)state;
	each_point(delete_file, keep_first_name, check_kept);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_replace),
		cmocka_unit_test(test_delete),
		cmocka_unit_test(test_conflict),
		cmocka_unit_test(test_touch),
		cmocka_unit_test(test_new),
		cmocka_unit_test(test_directories),
		cmocka_unit_test(test_without_leases),
		cmocka_unit_test(test_without_exchange),
		cmocka_unit_test(test_waiting_writer),
		cmocka_unit_test(test_exact),
		cmocka_unit_test(test_dropped_in),
		cmocka_unit_test(test_refused),
		cmocka_unit_test(test_swapped_parent),
		cmocka_unit_test(test_emptied_trash),
		cmocka_unit_test(test_taken_away),
		cmocka_unit_test(test_private_directory),
		cmocka_unit_test(test_first_name_removed),
		cmocka_unit_test(test_first_name_kept),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
