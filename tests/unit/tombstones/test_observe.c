/* tests/unit/tombstones/test_observe.c — what a look at the disk makes of rows, with a real store, index and scan. */
#include <pthread.h>
#include <time.h>

#include "tests/unit/tombstones/replica_help.h"

#include "tombstones/observe.h"
#include "tombstones/trash.h"

struct told {
	char text[2048];
};

struct bench {
	struct place p;
	struct ignore *ignore;
	struct told told;
	struct observe_result result;
	enum observe_local local;
	bool confirmed;
	uint64_t recent;
	void (*directory)(int dirfd, const char *path, void *data);
};

static int setup(void **state)
{
	struct bench *b = calloc(1, sizeof(*b));

	place_make(&b->p);
	place_open(&b->p);
	assert_int_equal(ignore_new(&b->ignore), 0);
	*state = b;
	return 0;
}

static int teardown(void **state)
{
	struct bench *b = *state;

	ignore_free(b->ignore);
	place_remove(&b->p);
	free(b);
	return 0;
}

static void on_tell(const char *path, enum scan_what what, int error, void *data)
{
	struct told *t = data;
	size_t n = strlen(t->text);

	snprintf(t->text + n, sizeof(t->text) - n, "%d:%s:%d ", (int)what, path, error);
}

static unsigned threads; /* of each look's pool; 0: none */

static int look_at(struct bench *b, const struct observe_path *paths, size_t n)
{
	int r;

	struct observe_options options = {
		.replica = b->p.replica, .local = b->local, .confirmed = b->confirmed, .recent = b->recent, .tell = on_tell, .tell_data = &b->told};
	struct scan_options scan = {.store = replica_store(b->p.replica), .ignore = b->ignore};

	b->told.text[0] = '\0';
	if (threads)
		assert_int_equal(pool_new(&scan.pool, threads), 0);
	r = observe_run(&options, &scan, paths, n, b->directory, b, &b->result);
	pool_free(scan.pool);
	return r;
}

static void look(struct bench *b)
{
	assert_int_equal(look_at(b, &(struct observe_path){.path = ""}, 1), 0);
}

/* Nothing more is to be said of what was just looked at. */
static void look_again(struct bench *b)
{
	look(b);
	assert_int_equal(b->result.events, 0);
	assert_int_equal(b->result.raced, 0);
	assert_int_equal(b->result.held, 0);
}

static int row_of(struct bench *b, const char *path, struct row *ret)
{
	struct index_txn *t = NULL;
	int r;

	assert_int_equal(index_begin_read(replica_index(b->p.replica), &t), 0);
	r = index_get(t, path, ret);
	index_abort(t);
	return r;
}

/* "" no row, "l" local, "t" tombstone, else the place's digit; a row with record: "live". */
static const char *state_of(struct bench *b, const char *path)
{
	static char text[8];
	struct row row = {0};

	if (row_of(b, path, &row))
		return "";
	snprintf(text, sizeof(text), "%c%d", row_live(&row) ? 'L' : row_has_record(&row) ? 'T' : 'l', row.place);
	row_deinit(&row);
	return text;
}

#define NO_ROW ""
#define ON_DISK "L1"
#define IGNORED "L3"
#define UNSUPPORTED "L4"
#define TOMBSTONE "T0"
#define IMPLIED "l2"
#define IMPLIED_TOMBSTONE "T2"

static struct index_counts counts_of(struct bench *b)
{
	struct index_txn *t = NULL;
	struct index_counts counts;

	assert_int_equal(index_begin_read(replica_index(b->p.replica), &t), 0);
	assert_int_equal(index_counts(t, &counts), 0);
	index_abort(t);
	return counts;
}

/* Is every dot of the row's state known of its path, as the replica's K stands? */
static bool known(struct bench *b, const char *path, const struct version_dots *dots)
{
	struct index_txn *t = NULL;
	struct knowledge k = {0};
	bool all = true;

	assert_int_equal(index_begin_read(replica_index(b->p.replica), &t), 0);
	assert_int_equal(replica_knowledge_read(t, &k), 0);
	index_abort(t);
	for (size_t i = 0; i < dots->n; i++)
		all = all && version_vector_has(knowledge_of(&k, path), dots->v[i], replica_lineage(b->p.replica));
	knowledge_deinit(&k);
	return all;
}

/* As apply would: another record or place for a row. */
static void change_row(struct bench *b, const char *path, void (*change)(struct row *row))
{
	struct replica_txn t;
	struct row row = {0};

	replica_lock(b->p.replica);
	assert_int_equal(replica_begin(b->p.replica, &t), 0);
	assert_int_equal(index_get(t.index, path, &row), 0);
	change(&row);
	assert_int_equal(index_put(t.index, path, &row), 0);
	assert_int_equal(replica_commit(&t), 0);
	replica_unlock(b->p.replica);
	row_deinit(&row);
}

/* A row as taken from a peer (incarnation 77), of that place; for files content that nobody has. */
static void put_foreign(struct bench *b, const char *path, uint8_t kind, uint8_t place, bool knows)
{
	struct version_incarnation i = {.inc = 77, .replica = 7};
	struct version_dot dot = {77, 5};
	struct row row = {.place = place, .record = {.live = kind != 0, .kind = kind, .mode = kind ? 0644 : 0}};
	struct replica_txn t;

	replica_lock(b->p.replica);
	assert_int_equal(replica_begin(b->p.replica, &t), 0);
	assert_int_equal(replica_learn_lineage(&t, &i, 1), 0);
	if (kind == RECORD_FILE)
		row.record.content = (struct content){.root.bytes[3] = 9, .size = 10, .chunk_bits = CHUNK_BITS_MIN};
	if (kind == RECORD_SYMLINK) {
		row.record.mode = 0777;
		row.record.target = strdup("there");
		row.record.content = (struct content){.root.bytes[3] = 9, .size = 5};
	}
	assert_int_equal(version_vector_raise(&row.record.vv, dot, NULL), 0);
	assert_int_equal(version_dots_add(&row.record.dots, dot), 0);
	if (kind)
		assert_int_equal(version_dots_add(&row.record.adots, dot), 0);
	if (kind == RECORD_FILE || kind == RECORD_SYMLINK)
		assert_int_equal(version_dots_add(&row.record.mdots, dot), 0);
	if (knows) {
		assert_int_equal(version_vector_raise(&t.knowledge.k, dot, replica_lineage(b->p.replica)), 0);
		t.knowledge_dirty = true;
	}
	assert_int_equal(index_put(t.index, path, &row), 0);
	assert_int_equal(replica_commit(&t), 0);
	replica_unlock(b->p.replica);
	row_deinit(&row);
}

static void write_many(struct bench *b, const char *directory, int from, int to)
{
	char path[64], text[64];

	mkdir(place_at(&b->p, directory), 0755);
	for (int i = from; i < to; i++) {
		snprintf(path, sizeof(path), "%s/%d", directory, i);
		snprintf(text, sizeof(text), "%s of %d", directory, i);
		place_write(&b->p, path, text);
	}
}

static void unlink_many(struct bench *b, const char *directory, int from, int to)
{
	char path[64];

	for (int i = from; i < to; i++) {
		snprintf(path, sizeof(path), "%s/%d", directory, i);
		assert_int_equal(unlink(place_at(&b->p, path)), 0);
	}
}

/* --- what is seen --- */

static void test_first_look(void **state)
{
	struct bench *b = *state;
	struct row row = {0};
	struct row directory = {0};

	place_mkdir(&b->p, "d");
	place_write(&b->p, "d/f", "text");
	assert_int_equal(symlink("d/f", place_at(&b->p, "s")), 0);
	look(b);
	assert_int_equal(b->result.events, 3);
	assert_int_equal(b->result.created, 3);
	assert_int_equal(b->result.scan.files, 1);
	assert_string_equal(state_of(b, "d"), ON_DISK);
	assert_string_equal(state_of(b, "s"), ON_DISK);
	assert_int_equal(row_of(b, "d/f", &row), 0);
	assert_int_equal(row.record.kind, RECORD_FILE);
	assert_int_equal(row.record.content.size, 4);
	assert_int_equal(row.record.mode, 0644);
	assert_int_equal(row.record.vv.n, 1);
	assert_int_equal(row.source, 0);
	assert_int_not_equal(row.stamp.ino, 0);
	assert_int_not_equal(row.recorded_ns, 0);
	assert_int_equal(row_of(b, "d", &directory), 0);
	assert_true(directory.record.dots.v[0].counter < row.record.dots.v[0].counter); /* parents first */
	row_deinit(&directory);
	row_deinit(&row);
	look_again(b);
	place_close(&b->p);
	place_open(&b->p);
	look_again(b);
	assert_int_equal(replica_own(b->p.replica).inc, 0);
}

static void test_edit(void **state)
{
	struct bench *b = *state;
	struct row before = {0}, after = {0};

	place_write(&b->p, "f", "text");
	look(b);
	assert_int_equal(row_of(b, "f", &before), 0);
	place_write(&b->p, "f", "other text");
	look(b);
	assert_int_equal(b->result.changed, 1);
	assert_int_equal(b->result.events, 1);
	assert_int_equal(row_of(b, "f", &after), 0);
	assert_true(version_vector_leq(&before.record.vv, &after.record.vv, replica_lineage(b->p.replica)));
	assert_false(version_dots_equal(&before.record.dots, &after.record.dots));
	assert_true(version_dots_equal(&before.record.adots, &after.record.adots));
	assert_false(version_dots_equal(&before.record.mdots, &after.record.mdots));
	row_deinit(&before);
	row_deinit(&after);
	look_again(b);
}

static void test_touch(void **state)
{
	struct timespec times[2] = {{.tv_nsec = UTIME_OMIT}, {.tv_sec = 1000000000}};
	struct bench *b = *state;
	struct row before = {0}, after = {0};

	place_write(&b->p, "f", "text");
	look(b);
	assert_int_equal(row_of(b, "f", &before), 0);

	assert_int_equal(chmod(place_at(&b->p, "f"), 0600), 0);
	look(b);
	assert_int_equal(b->result.touched, 1);
	assert_int_equal(row_of(b, "f", &after), 0);
	assert_int_equal(after.record.mode, 0600);
	assert_true(version_dots_equal(&before.record.dots, &after.record.dots));
	assert_true(version_dots_equal(&before.record.mdots, &after.record.mdots));
	assert_false(version_dots_equal(&before.record.adots, &after.record.adots));
	row_deinit(&before);
	before = after;
	after = (struct row){0};

	assert_int_equal(utimensat(AT_FDCWD, place_at(&b->p, "f"), times, 0), 0);
	look(b);
	assert_int_equal(b->result.touched, 1);
	assert_int_equal(row_of(b, "f", &after), 0);
	assert_int_equal(after.record.mtime_ns, INT64_C(1000000000) * 1000000000);
	assert_true(version_dots_equal(&before.record.adots, &after.record.adots));
	assert_false(version_dots_equal(&before.record.mdots, &after.record.mdots));
	row_deinit(&before);
	row_deinit(&after);

	/* the same content written again by replacement, same time and mode: no event */
	place_write(&b->p, "g", "text");
	assert_int_equal(chmod(place_at(&b->p, "g"), 0600), 0);
	assert_int_equal(utimensat(AT_FDCWD, place_at(&b->p, "g"), times, 0), 0);
	assert_int_equal(rename(place_at(&b->p, "g"), place_at(&b->p, "f")), 0);
	look(b);
	assert_int_equal(b->result.events, 0);
	assert_int_equal(b->result.restamped, 1);
	look_again(b);
}

static void store_less(struct row *row)
{
	/* the record has what this disk could not store: the stamp says what it gave back */
	row->record.uid = 12345;
	row->record.mode = 04755;
	row->record.mtime_ns += 7;
}

/* What this disk cannot store stays in the record. */
static void test_unstored_attributes(void **state)
{
	struct bench *b = *state;
	struct row row = {0};
	int64_t mtime_ns;

	place_write(&b->p, "f", "text");
	look(b);
	change_row(b, "f", store_less);
	look_again(b);
	assert_int_equal(row_of(b, "f", &row), 0);
	mtime_ns = row.record.mtime_ns;
	row_deinit(&row);

	assert_int_equal(chown(place_at(&b->p, "f"), (uid_t)-1, 4711), 0);
	look(b);
	assert_int_equal(b->result.touched, 1);
	assert_int_equal(row_of(b, "f", &row), 0);
	assert_int_equal(row.record.gid, 4711);
	assert_int_equal(row.record.uid, 12345);
	assert_int_equal(row.record.mode, 04755);
	assert_true(row.record.mtime_ns == mtime_ns);
	row_deinit(&row);

	place_write(&b->p, "f", "other");
	look(b);
	assert_int_equal(b->result.changed, 1);
	assert_int_equal(row_of(b, "f", &row), 0);
	assert_int_equal(row.record.uid, 12345);
	assert_int_equal(row.record.mode, 04755);
	assert_true(row.record.mtime_ns == row.stamp.mtime_ns); /* an edit's time is its own */
	row_deinit(&row);

	/* what the record says comes to be on disk: no event */
	assert_int_equal(chown(place_at(&b->p, "f"), 12345, (gid_t)-1), 0);
	assert_int_equal(chmod(place_at(&b->p, "f"), 04755), 0);
	look(b);
	assert_int_equal(b->result.events, 0);
	look_again(b);
}

static void test_delete_and_recreate(void **state)
{
	struct bench *b = *state;
	struct row gone = {0}, row = {0};

	place_mkdir(&b->p, "d");
	place_mkdir(&b->p, "d/e");
	place_write(&b->p, "d/e/f", "text");
	look(b);
	unlink(place_at(&b->p, "d/e/f"));
	rmdir(place_at(&b->p, "d/e"));
	rmdir(place_at(&b->p, "d"));
	look(b);
	assert_int_equal(b->result.deleted, 3);
	assert_string_equal(state_of(b, "d"), TOMBSTONE);
	assert_string_equal(state_of(b, "d/e"), TOMBSTONE);
	assert_int_equal(row_of(b, "d/e/f", &gone), 0);
	assert_int_not_equal(gone.since_ns, 0);
	assert_int_equal(gone.record.vv.v[0].counter, 4); /* deepest first */
	look_again(b);

	place_mkdir(&b->p, "d");
	place_mkdir(&b->p, "d/e");
	place_write(&b->p, "d/e/f", "text");
	look(b);
	assert_int_equal(b->result.created, 3);
	assert_int_equal(row_of(b, "d/e/f", &row), 0);
	assert_true(row_live(&row));
	assert_true(version_vector_leq(&gone.record.vv, &row.record.vv, replica_lineage(b->p.replica)));
	row_deinit(&gone);
	row_deinit(&row);
	look_again(b);
}

static void test_kind_changes(void **state)
{
	struct bench *b = *state;

	place_mkdir(&b->p, "d");
	place_write(&b->p, "d/f", "text");
	place_write(&b->p, "f", "text");
	look(b);
	unlink(place_at(&b->p, "d/f"));
	rmdir(place_at(&b->p, "d"));
	place_write(&b->p, "d", "now a file");
	unlink(place_at(&b->p, "f"));
	place_mkdir(&b->p, "f");
	place_write(&b->p, "f/g", "below");
	look(b);
	assert_int_equal(b->result.changed, 2);
	assert_int_equal(b->result.deleted, 1);
	assert_int_equal(b->result.created, 1);
	assert_string_equal(state_of(b, "d/f"), TOMBSTONE);
	assert_string_equal(state_of(b, "f/g"), ON_DISK);
	look_again(b);
	unlink(place_at(&b->p, "d"));
	assert_int_equal(symlink("f", place_at(&b->p, "d")), 0);
	look(b);
	assert_int_equal(b->result.changed, 1);
	look_again(b);
}

/* --- rows that are not on disk --- */

static void write_rules(struct bench *b, const char *rules)
{
	place_write(&b->p, IGNORE_FILE_NAME, rules);
}

static void test_ignored(void **state)
{
	struct bench *b = *state;
	struct row row = {0};

	place_write(&b->p, "f.o", "object");
	place_write(&b->p, "g.o", "object too");
	place_write(&b->p, "h.o", "will differ");
	write_rules(b, "# nothing\n");
	look(b);
	write_rules(b, "*.o\n");
	look(b);
	assert_int_equal(b->result.events, 1); /* the rules' own */
	assert_int_equal(b->result.deleted, 0);
	assert_string_equal(state_of(b, "f.o"), IGNORED);
	unlink(place_at(&b->p, "g.o"));
	place_write(&b->p, "h.o", "differs now");
	look_again(b);
	assert_string_equal(state_of(b, "g.o"), IGNORED);
	assert_int_equal(row_of(b, "g.o", &row), 0);
	assert_true(known(b, "g.o", &row.record.dots));

	write_rules(b, "# nothing again\n");
	look(b);
	assert_string_equal(state_of(b, "f.o"), ON_DISK); /* the same content: taken up without an event */
	assert_string_equal(state_of(b, "g.o"), NO_ROW);  /* not there: as never seen, so that peers send it again */
	assert_false(known(b, "g.o", &row.record.dots));
	row_deinit(&row);
	assert_string_equal(state_of(b, "h.o"), NO_ROW); /* other content: beside, and the known version is fetched */
	assert_false(place_has(&b->p, "h.o"));
	assert_int_equal(b->result.events, 2);
	assert_int_equal(b->result.deleted, 0);
	assert_non_null(strstr(b->told.text, ":h.o:0 "));
	look_again(b);
	assert_int_equal(counts_of(b).live, 3);
}

static void assert_only_copy(struct bench *b, const char *prefix, const char *text)
{
	DIR *d = opendir(b->p.root);
	struct dirent *e;
	int n = 0;

	assert_non_null(d);
	while ((e = readdir(d)))
		if (!strncmp(e->d_name, prefix, strlen(prefix)) && strstr(e->d_name, ".sync-conflict-")) {
			assert_string_equal(place_read(&b->p, e->d_name), text);
			assert_string_equal(state_of(b, e->d_name), ON_DISK);
			n++;
		}
	closedir(d);
	assert_int_equal(n, 1);
}

/* A link that this disk could not hold (once: another disk, a call that was refused): now it can, and peers send it again. */
static void test_held_again(void **state)
{
	struct bench *b = *state;
	struct version_dots dots = {0};

	put_foreign(b, "link", RECORD_SYMLINK, ROW_UNSUPPORTED, true);
	put_foreign(b, "strange", RECORD_FILE, ROW_UNSUPPORTED, true);
	assert_int_equal(version_dots_add(&dots, (struct version_dot){77, 5}), 0);
	assert_true(known(b, "link", &dots));
	look(b);
	assert_string_equal(state_of(b, "link"), NO_ROW);
	assert_false(known(b, "link", &dots));
	assert_string_equal(state_of(b, "strange"), UNSUPPORTED);
	assert_int_equal(b->result.deleted, 0);
	look_again(b);
	version_dots_deinit(&dots);
}

static void test_in_the_way(void **state)
{
	struct bench *b = *state;
	struct version_dots dots = {0};

	put_foreign(b, "f", RECORD_FILE, ROW_UNSUPPORTED, true);
	look_again(b);
	assert_string_equal(state_of(b, "f"), UNSUPPORTED); /* never deleted for not being there */
	assert_int_equal(version_dots_add(&dots, (struct version_dot){77, 5}), 0);
	assert_true(known(b, "f", &dots));

	place_write(&b->p, "f", "mine");
	look(b);
	assert_string_equal(state_of(b, "f"), NO_ROW);
	assert_false(place_has(&b->p, "f"));
	assert_false(known(b, "f", &dots));
	assert_int_equal(b->result.created, 1);
	assert_only_copy(b, "f.", "mine");
	version_dots_deinit(&dots);
	look_again(b);
}

static void test_directory_in_the_way(void **state)
{
	struct bench *b = *state;

	put_foreign(b, "f", RECORD_FILE, ROW_COLLIDES, true);
	place_mkdir(&b->p, "f");
	place_write(&b->p, "f/g", "below");
	look(b);
	assert_string_equal(state_of(b, "f"), NO_ROW);
	assert_string_equal(state_of(b, "f/g"), NO_ROW);
	assert_false(place_has(&b->p, "f"));
	assert_int_equal(b->result.raced, 1); /* what is below is looked at under the new name */
	look(b);
	assert_int_equal(b->result.created, 1);
	assert_string_equal(state_of(b, "f.sync-conflict-000000000000/g"), ON_DISK);
	look_again(b);
	/* the same kind is the same state */
	put_foreign(b, "e", RECORD_DIRECTORY, ROW_UNSUPPORTED, true);
	place_mkdir(&b->p, "e");
	look_again(b);
	assert_string_equal(state_of(b, "e"), ON_DISK);
}

/* No room in K to forget: nothing is touched, and it is told. */
static void test_in_the_way_and_full(void **state)
{
	struct bench *b = *state;
	struct replica_txn t;
	char name[32];

	put_foreign(b, "f", RECORD_FILE, ROW_UNSUPPORTED, true);
	replica_lock(b->p.replica);
	assert_int_equal(replica_begin(b->p.replica, &t), 0);
	for (int i = 0; i < KNOWLEDGE_EXCEPTIONS_MAX; i++) {
		snprintf(name, sizeof(name), "x%d", i);
		assert_int_equal(knowledge_forget(&t.knowledge, name), 0);
	}
	t.knowledge_dirty = true;
	assert_int_equal(replica_commit(&t), 0);
	replica_unlock(b->p.replica);
	place_write(&b->p, "f", "mine");
	look(b);
	assert_int_equal(b->result.events, 0);
	assert_string_equal(state_of(b, "f"), UNSUPPORTED);
	assert_string_equal(place_read(&b->p, "f"), "mine");
	snprintf(name, sizeof(name), ":f:%d ", -ENOSPC);
	assert_non_null(strstr(b->told.text, name));
}

static void make_implied(struct bench *b, const char *path, bool tombstone)
{
	struct row row = {.place = ROW_IMPLIED};
	struct index_txn *w = NULL;
	struct file_stat st;
	int dir cleanup_close = -1;
	const char *name;

	if (tombstone)
		put_foreign(b, path, 0, ROW_NOT_HERE, true);
	assert_int_equal(index_begin_write(replica_index(b->p.replica), &w), 0);
	if (tombstone) {
		row_deinit(&row);
		assert_int_equal(index_get(w, path, &row), 0);
		row.place = ROW_IMPLIED;
	}
	assert_int_equal(file_open_parent(store_root(replica_store(b->p.replica)), path, &dir, &name), 0);
	assert_int_equal(file_stat_at(dir, name, &st), 0);
	stamp_of(&st, &row.stamp);
	assert_int_equal(index_put(w, path, &row), 0);
	assert_int_equal(index_commit(&w), 0);
	row_deinit(&row);
}

static void test_implied_directories(void **state)
{
	struct bench *b = *state;

	place_mkdir(&b->p, "d");
	make_implied(b, "d", false);
	place_mkdir(&b->p, "e");
	make_implied(b, "e", true);
	place_mkdir(&b->p, "g");
	make_implied(b, "g", true);
	place_mkdir(&b->p, "h");
	make_implied(b, "h", false);
	assert_int_equal(mkfifo(place_at(&b->p, "e/fifo"), 0600), 0);
	for (const char *c = "dgh"; *c; c++)
		assert_int_equal(mkfifo(place_at(&b->p, (char[]){*c, '/', 'f', 0}), 0600), 0);
	look_again(b); /* local, whatever is in it */
	assert_string_equal(state_of(b, "d"), IMPLIED);
	assert_string_equal(state_of(b, "e"), IMPLIED_TOMBSTONE);
	assert_int_equal(chmod(place_at(&b->p, "d"), 0700), 0);
	look_again(b);

	for (const char *c = "dgh"; *c; c++)
		unlink(place_at(&b->p, (char[]){*c, '/', 'f', 0}));
	unlink(place_at(&b->p, "e/fifo"));
	rmdir(place_at(&b->p, "d"));
	rmdir(place_at(&b->p, "e"));
	rmdir(place_at(&b->p, "g"));
	rmdir(place_at(&b->p, "h"));
	place_write(&b->p, "g", "now a file");
	place_write(&b->p, "h", "now a file");
	look(b);
	assert_int_equal(b->result.deleted, 0);
	assert_int_equal(b->result.created, 2);
	assert_string_equal(state_of(b, "d"), NO_ROW);
	assert_string_equal(state_of(b, "e"), TOMBSTONE);
	assert_string_equal(state_of(b, "g"), ON_DISK);
	look_again(b);
}

/* Those that could not be removed when the last thing in them went. */
static void test_implied_directories_left_empty(void **state)
{
	struct bench *b = *state;

	place_mkdir(&b->p, "d");
	place_mkdir(&b->p, "d/e");
	place_mkdir(&b->p, "g");
	place_mkdir(&b->p, "k");
	make_implied(b, "d", false);
	make_implied(b, "d/e", true);
	make_implied(b, "g", true);
	make_implied(b, "k", false);
	put_foreign(b, "k/x", RECORD_FILE, ROW_UNSUPPORTED, true); /* live, though not here */
	assert_int_equal(mkfifo(place_at(&b->p, "g/fifo"), 0600), 0);
	look_again(b);
	assert_string_equal(state_of(b, "d"), NO_ROW);
	assert_string_equal(state_of(b, "d/e"), TOMBSTONE);
	assert_int_equal(access(place_at(&b->p, "d"), F_OK), -1);
	assert_string_equal(state_of(b, "g"), IMPLIED_TOMBSTONE);
	assert_string_equal(state_of(b, "k"), IMPLIED);
	unlink(place_at(&b->p, "g/fifo"));
	look_again(b);
	assert_string_equal(state_of(b, "g"), TOMBSTONE);
	assert_int_equal(access(place_at(&b->p, "g"), F_OK), -1);
}

/* --- races --- */

static void touch_row(struct row *row)
{
	row->record.mtime_ns++;
}

static void change_meanwhile(int dirfd, const char *path, void *data)
{
	struct bench *b = data;

	(void)dirfd;
	if (strcmp(path, "m") != 0)
		return;
	change_row(b, "a", touch_row); /* was looked at before */
	put_foreign(b, "b", RECORD_FILE, ROW_UNSUPPORTED, false);
	change_row(b, "m/gone", touch_row);
}

static void test_raced(void **state)
{
	struct bench *b = *state;

	place_write(&b->p, "a", "text");
	place_mkdir(&b->p, "m");
	place_write(&b->p, "m/gone", "text");
	look(b);
	place_write(&b->p, "a", "edited");
	place_write(&b->p, "b", "new");
	unlink(place_at(&b->p, "m/gone"));
	b->directory = change_meanwhile;
	look(b);
	b->directory = NULL;
	assert_true(b->result.raced >= 2);
	assert_int_equal(b->result.changed, 0);
	assert_int_equal(b->result.created, 0);
	assert_string_equal(state_of(b, "b"), UNSUPPORTED);
	assert_string_equal(place_read(&b->p, "b"), "new");
	look(b); /* again, in peace */
	assert_int_equal(b->result.raced, 0);
	assert_int_equal(b->result.changed, 1);
	assert_string_equal(state_of(b, "m/gone"), TOMBSTONE);
	look_again(b);
}

static const char *lost_name(const struct bench *b)
{
	static char name[300];

	snprintf(name, sizeof(name), "%s.lost", b->p.root);
	return name;
}

static void lose_root(int dirfd, const char *path, void *data)
{
	struct bench *b = data;

	(void)dirfd;
	if (!*path)
		assert_int_equal(rename(b->p.root, lost_name(b)), 0);
}

static void test_root_changed(void **state)
{
	struct bench *b = *state;

	place_write(&b->p, "a", "text");
	look(b);
	unlink(place_at(&b->p, "a"));
	b->directory = lose_root;
	assert_int_equal(look_at(b, &(struct observe_path){.path = ""}, 1), STORE_ROOT_CHANGED);
	b->directory = NULL;
	assert_int_equal(rename(lost_name(b), b->p.root), 0);
	assert_int_equal(b->result.events, 0);
	assert_string_equal(state_of(b, "a"), ON_DISK);
	look(b);
	assert_int_equal(b->result.deleted, 1);
}

static void test_several_paths(void **state)
{
	const struct observe_path paths[] = {{.path = "d", .shallow = true}, {.path = "d/f"}, {.path = "e"}};
	struct bench *b = *state;

	place_mkdir(&b->p, "d");
	place_mkdir(&b->p, "e");
	place_write(&b->p, "d/f", "text");
	place_write(&b->p, "other", "text");
	look(b);
	assert_int_equal(rename(place_at(&b->p, "d/f"), place_at(&b->p, "e/f")), 0);
	unlink(place_at(&b->p, "other"));
	assert_int_equal(look_at(b, paths, ARRAY_SIZE(paths)), 0);
	assert_int_equal(b->result.created, 1);
	assert_int_equal(b->result.deleted, 1);
	assert_int_equal(b->result.raced, 0);
	assert_string_equal(state_of(b, "other"), ON_DISK); /* was not looked at */
	look(b);
	assert_int_equal(b->result.deleted, 1);
	look_again(b);
}

/* --- the budget --- */

static void test_over_budget(void **state)
{
	(void)state;
	assert_false(observe_over_budget(0, 0));
	assert_false(observe_over_budget(100, 100));
	assert_true(observe_over_budget(101, 101));
	assert_false(observe_over_budget(200, 1000));
	assert_true(observe_over_budget(201, 1000));
	assert_false(observe_over_budget(201, 1009)); /* 201.8 */
	assert_true(observe_over_budget(202, 1009));
	assert_false(observe_over_budget(UINT64_MAX / 5 - 1, UINT64_MAX));
	assert_true(observe_over_budget(UINT64_MAX, UINT64_MAX));
}

static void test_budget_overall(void **state)
{
	struct bench *b = *state;

	write_many(b, "a", 0, 60);
	write_many(b, "b", 0, 60);
	write_many(b, "c", 0, 20);
	look(b);
	unlink_many(b, "a", 0, 60);
	unlink_many(b, "b", 0, 60);
	rmdir(place_at(&b->p, "b"));
	place_write(&b->p, "b", "was a directory");
	place_write(&b->p, "other", "goes on");
	look(b);
	assert_int_equal(b->result.held, 120);
	assert_string_equal(b->result.held_at, "");
	assert_int_equal(b->result.deleted, 0);
	assert_int_equal(b->result.changed, 0); /* held with what was below it */
	assert_int_equal(b->result.created, 1);
	look(b);
	assert_int_equal(b->result.held, 120);
	assert_int_equal(b->result.events, 0);
	b->confirmed = true;
	look(b);
	assert_int_equal(b->result.held, 0);
	assert_int_equal(b->result.deleted, 120);
	assert_int_equal(b->result.changed, 1);
	b->confirmed = false;
	look_again(b);
}

static void test_budget_of_a_subtree(void **state)
{
	struct bench *b = *state;

	write_many(b, "big", 0, 700);
	write_many(b, "s", 0, 130);
	write_many(b, "s.t", 0, 10);
	look(b);
	unlink_many(b, "s", 0, 110);
	unlink_many(b, "s.t", 0, 1);
	look(b);
	assert_int_equal(b->result.held, 111);
	assert_string_equal(b->result.held_at, "s");
	/* put back, and fewer go */
	write_many(b, "s", 0, 20);
	look(b);
	assert_int_equal(b->result.held, 0);
	assert_int_equal(b->result.deleted, 91);
	look_again(b);
}

/* A renamed directory is no loss; neither is each copy of one content for all deletions of it. */
static void test_budget_and_renames(void **state)
{
	struct bench *b = *state;

	write_many(b, "a", 0, 150);
	look(b);
	assert_int_equal(rename(place_at(&b->p, "a"), place_at(&b->p, "b")), 0);
	look(b);
	assert_int_equal(b->result.held, 0);
	assert_int_equal(b->result.deleted, 151);
	assert_int_equal(b->result.created, 151);
	look_again(b);

	for (int i = 0; i < 150; i++) {
		char path[64];

		snprintf(path, sizeof(path), "b/%d", i);
		place_write(&b->p, path, "all the same");
	}
	look(b);
	assert_int_equal(b->result.changed, 150);
	unlink_many(b, "b", 0, 150);
	place_write(&b->p, "one", "all the same");
	look(b);
	assert_int_equal(b->result.held, 150);
}

static void *look_thread(void *data)
{
	look(data);
	return NULL;
}

/* What a session deletes is not a user's deletion, also where the look falls between its removal and its record. */
static void test_budget_and_applied_deletions(void **state)
{
	struct bench *b = *state;
	struct replica_txn t = {0};
	pthread_t thread;

	write_many(b, "a", 0, 150);
	look(b);
	replica_lock(b->p.replica);
	unlink_many(b, "a", 0, 150);
	assert_int_equal(pthread_create(&thread, NULL, look_thread, b), 0);
	usleep(200 * 1000); /* it sees that all are gone, and waits */
	assert_int_equal(replica_begin(b->p.replica, &t), 0);
	for (int i = 0; i < 150; i++) {
		struct row row = {0}, gone = {.place = ROW_NOT_HERE};
		char path[64];

		snprintf(path, sizeof(path), "a/%d", i);
		assert_int_equal(index_get(t.index, path, &row), 0);
		assert_int_equal(replica_event(&t, REPLICA_EVENT_DELETE, &row.record, &gone.record), 0);
		assert_int_equal(index_put(t.index, path, &gone), 0);
		row_deinit(&row);
		row_deinit(&gone);
	}
	assert_int_equal(replica_commit(&t), 0);
	replica_unlock(b->p.replica);
	assert_int_equal(pthread_join(thread, NULL), 0);
	assert_int_equal(b->result.held, 0);
	assert_int_equal(b->result.counted, 0);
	assert_int_equal(b->result.deleted, 0);
	look_again(b);
}

/* --- copies --- */

static void become_copy(struct bench *b)
{
	assert_int_equal(store_renew_replica(replica_store(b->p.replica)), 0);
	place_close(&b->p);
	place_open(&b->p);
	assert_true(replica_suspect(b->p.replica));
}

static void test_suspect(void **state)
{
	struct bench *b = *state;
	struct row same = {0}, row = {0};

	write_many(b, "many", 0, 130);
	place_write(&b->p, "same", "same");
	place_write(&b->p, "changes", "text");
	place_write(&b->p, "gone", "text");
	place_write(&b->p, "back", "text");
	look(b);
	unlink(place_at(&b->p, "back"));
	look(b);
	assert_string_equal(state_of(b, "back"), TOMBSTONE);
	assert_int_equal(row_of(b, "same", &same), 0);
	become_copy(b);

	unlink_many(b, "many", 0, 130);
	unlink(place_at(&b->p, "gone"));
	place_write(&b->p, "changes", "changed");
	place_write(&b->p, "back", "restored");
	look(b);
	assert_int_equal(b->result.deleted, 0);
	assert_int_equal(b->result.held, 0);
	assert_int_equal(b->result.events, 2 + (b->result.touched > 0)); /* `many` itself may be touched */
	assert_string_equal(state_of(b, "gone"), NO_ROW);
	assert_string_equal(state_of(b, "many/7"), NO_ROW);
	assert_int_equal(row_of(b, "changes", &row), 0);
	assert_int_equal(row.record.vv.n, 1); /* descends from nothing */
	assert_int_equal(row.record.vv.v[0].inc, replica_own(b->p.replica).inc);
	assert_false(version_vector_has(&row.record.vv, same.record.dots.v[0], replica_lineage(b->p.replica)));
	row_deinit(&row);
	assert_int_equal(row_of(b, "back", &row), 0);
	assert_int_equal(row.record.vv.n, 1);
	assert_int_equal(row.record.vv.v[0].inc, replica_own(b->p.replica).inc);
	row_deinit(&row);
	assert_int_equal(row_of(b, "same", &row), 0);
	assert_true(record_equal(&row.record, &same.record));
	row_deinit(&row);
	row_deinit(&same);
	assert_false(replica_suspect(b->p.replica));
	look_again(b);
	place_close(&b->p);
	place_open(&b->p);
	assert_false(replica_suspect(b->p.replica));
}

/* A look at a part does not end the suspicion; what was taken from a peer meanwhile is fetched again. */
static void test_suspect_in_part(void **state)
{
	const struct observe_path part = {.path = "d"};
	struct version_dots dots = {0};
	struct bench *b = *state;

	place_mkdir(&b->p, "d");
	place_write(&b->p, "d/f", "text");
	look(b);
	become_copy(b);
	put_foreign(b, "d/g", RECORD_FILE, ROW_ON_DISK, true);
	assert_int_equal(look_at(b, &part, 1), 0);
	assert_true(replica_suspect(b->p.replica));
	assert_string_equal(state_of(b, "d/g"), NO_ROW);
	assert_int_equal(version_dots_add(&dots, (struct version_dot){77, 5}), 0);
	assert_false(known(b, "d/g", &dots));
	version_dots_deinit(&dots);
	look(b);
	assert_false(replica_suspect(b->p.replica));
}

/* --- what is taken back --- */

static void remove_any(struct bench *b, const char *path)
{
	nftw(place_at(&b->p, path), place_remove_one, 8, FTW_DEPTH | FTW_PHYS);
}

static void become_foreign(struct row *row)
{
	struct version_dot dot = {77, 5};
	struct record *r = &row->record;

	version_vector_deinit(&r->vv);
	version_dots_deinit(&r->dots);
	version_dots_deinit(&r->adots);
	version_dots_deinit(&r->mdots);
	assert_int_equal(version_vector_raise(&r->vv, dot, NULL), 0);
	assert_int_equal(version_dots_add(&r->dots, dot), 0);
	assert_int_equal(version_dots_add(&r->adots, dot), 0);
	if (r->kind != RECORD_DIRECTORY)
		assert_int_equal(version_dots_add(&r->mdots, dot), 0);
}

/* d/, d/f, d/g, s, as if a peer had made them; from now on changes are taken back. */
static void taken_from_peer(struct bench *b)
{
	static const char *const paths[] = {"d", "d/f", "d/g", "s"};

	place_mkdir(&b->p, "d");
	place_write(&b->p, "d/f", "text");
	place_write(&b->p, "d/g", "text of g");
	assert_int_equal(symlink("d/f", place_at(&b->p, "s")), 0);
	look(b);
	put_foreign(b, "purged", 0, ROW_NOT_HERE, true); /* K knows the peer */
	for (size_t i = 0; i < ARRAY_SIZE(paths); i++)
		change_row(b, paths[i], become_foreign);
	b->local = OBSERVE_UNDO;
	look_again(b);
	assert_int_equal(b->result.undone, 0);
}

static int note_trash(const struct trash_entry *e, void *data)
{
	strcat(strcat(data, e->path), " ");
	return 0;
}

static const char *trash_of(struct bench *b)
{
	static char text[1000];

	text[0] = 0;
	assert_int_equal(trash_list(replica_store(b->p.replica), note_trash, text), 0);
	return text;
}

static void look_undoes(struct bench *b, uint64_t undone)
{
	look(b);
	assert_int_equal(b->result.events, 0);
	assert_int_equal(b->result.undone, undone);
}

static void test_undo_content(void **state)
{
	struct version_dots dots = {0};
	struct bench *b = *state;

	taken_from_peer(b);
	assert_int_equal(version_dots_add(&dots, (struct version_dot){77, 5}), 0);
	place_write(&b->p, "d/f", "other text");
	unlink(place_at(&b->p, "s"));
	place_mkdir(&b->p, "new");
	place_mkdir(&b->p, "new/in");
	place_write(&b->p, "new/in/file", "mine");
	place_write(&b->p, "d/new", "mine too");
	look_undoes(b, 6); /* an edit, a deletion, two files, two directories */
	assert_string_equal(trash_of(b), "d/f d/new new/in/file ");
	assert_false(place_has(&b->p, "new"));
	assert_true(place_has(&b->p, "d"));
	assert_string_equal(state_of(b, "d/f"), NO_ROW); /* to be fetched again */
	assert_string_equal(state_of(b, "s"), NO_ROW);
	assert_false(known(b, "d/f", &dots));
	assert_false(known(b, "s", &dots));
	assert_string_equal(state_of(b, "d/g"), ON_DISK);
	version_dots_deinit(&dots);
	look_undoes(b, 0);
}

static void test_undo_attributes(void **state)
{
	struct timespec times[2] = {{.tv_nsec = UTIME_OMIT}, {.tv_sec = 1000}};
	struct bench *b = *state;
	struct stat before, st;

	taken_from_peer(b);
	assert_int_equal(stat(place_at(&b->p, "d/f"), &before), 0);
	assert_int_equal(chmod(place_at(&b->p, "d/f"), 0600), 0);
	assert_int_equal(utimensat(AT_FDCWD, place_at(&b->p, "d/f"), times, 0), 0);
	assert_int_equal(utimensat(AT_FDCWD, place_at(&b->p, "s"), times, AT_SYMLINK_NOFOLLOW), 0);
	assert_int_equal(chmod(place_at(&b->p, "d"), 0700), 0);
	look_undoes(b, 3);
	assert_int_equal(stat(place_at(&b->p, "d/f"), &st), 0);
	assert_int_equal(st.st_mode & 07777, 0644);
	assert_int_equal(st.st_mtim.tv_sec, before.st_mtim.tv_sec);
	assert_int_equal(st.st_mtim.tv_nsec, before.st_mtim.tv_nsec);
	assert_int_equal(stat(place_at(&b->p, "d"), &st), 0);
	assert_int_equal(st.st_mode & 07777, 0755);
	assert_string_equal(trash_of(b), "");
	assert_string_equal(state_of(b, "d/f"), ON_DISK);
	look_undoes(b, 0);
}

static void test_undo_rename(void **state)
{
	struct bench *b = *state;

	taken_from_peer(b);
	assert_int_equal(rename(place_at(&b->p, "d"), place_at(&b->p, "e")), 0);
	look(b);
	assert_int_equal(b->result.events, 0);
	assert_true(b->result.raced > 0);
	look_undoes(b, 0);
	assert_false(place_has(&b->p, "e"));
	assert_string_equal(place_read(&b->p, "d/f"), "text");
	assert_int_equal(rename(place_at(&b->p, "d/g"), place_at(&b->p, "a")), 0);
	look(b);
	look_undoes(b, 0);
	assert_string_equal(place_read(&b->p, "d/g"), "text of g");
	assert_string_equal(state_of(b, "d/g"), ON_DISK);
	assert_string_equal(trash_of(b), "");
}

/* A kind that changes, both ways. */
static void test_undo_kinds(void **state)
{
	struct bench *b = *state;

	taken_from_peer(b);
	remove_any(b, "d");
	place_write(&b->p, "d", "a file");
	unlink(place_at(&b->p, "s"));
	place_mkdir(&b->p, "s");
	place_write(&b->p, "s/x", "in it");
	look(b);
	assert_int_equal(b->result.events, 0);
	look(b);
	look_undoes(b, 0);
	assert_string_equal(trash_of(b), "d s/x ");
	assert_false(place_has(&b->p, "s"));
	assert_false(place_has(&b->p, "d"));
	assert_string_equal(state_of(b, "d"), NO_ROW);
	assert_string_equal(state_of(b, "d/f"), NO_ROW);
}

/* Nobody is there to fetch from; and what is not the peer's alone is the session's to undo. */
static void test_undo_waits(void **state)
{
	struct bench *b = *state;

	taken_from_peer(b);
	b->local = OBSERVE_LEAVE;
	place_write(&b->p, "d/f", "other text");
	unlink(place_at(&b->p, "s"));
	look_undoes(b, 0);
	assert_string_equal(b->told.text, "1:d/f:1000 5:s:1000 ");
	assert_string_equal(place_read(&b->p, "d/f"), "other text");
	assert_string_equal(state_of(b, "s"), ON_DISK);
	b->local = OBSERVE_RECORD;
	look(b);
	assert_int_equal(b->result.events, 2);
	b->local = OBSERVE_UNDO;
	place_write(&b->p, "d/f", "still another");
	look(b);
	assert_int_equal(b->result.events, 1);
	assert_string_equal(place_read(&b->p, "d/f"), "still another");
}

static void test_undo_first_meeting(void **state)
{
	struct bench *b = *state;

	b->local = OBSERVE_UNDO; /* but it has met nobody */
	place_write(&b->p, "f", "text");
	look(b);
	assert_int_equal(b->result.events, 1);
	assert_string_equal(place_read(&b->p, "f"), "text");
}

/* Ignored content, and many deletions. */
static void test_undo_keeps_off(void **state)
{
	struct bench *b = *state;
	char name[32];

	write_rules(b, "*.o\n");
	write_many(b, "many", 0, 150);
	taken_from_peer(b);
	for (int i = 0; i < 150; i++) {
		snprintf(name, sizeof(name), "many/%d", i);
		change_row(b, name, become_foreign);
	}
	place_mkdir(&b->p, "kept");
	place_write(&b->p, "kept/x.o", "ignored");
	unlink_many(b, "many", 0, 150);
	look_undoes(b, 0);
	assert_int_equal(b->result.held, 150);
	assert_string_equal(place_read(&b->p, "kept/x.o"), "ignored");
	b->confirmed = true;
	look_undoes(b, 150);
	assert_string_equal(state_of(b, "many/7"), NO_ROW);
}

/* --- big files --- */

static void test_nodes(void **state)
{
	struct bench *b = *state;
	struct row row = {0};
	struct index_txn *t = NULL;
	struct buf payload = BUF_INIT;
	uint8_t level, *bytes = malloc(1024 * 1024);
	uint64_t x = 88172645463325252u;
	int fd = open(place_at(&b->p, "big"), O_WRONLY | O_CREAT, 0644);

	for (size_t i = 0; i < 1024 * 1024; i++) {
		x ^= x << 13;
		x ^= x >> 7;
		x ^= x << 17;
		bytes[i] = (uint8_t)x;
	}
	assert_int_equal(write(fd, bytes, 1024 * 1024), 1024 * 1024);
	close(fd);
	free(bytes);
	look(b);
	assert_int_equal(row_of(b, "big", &row), 0);
	assert_true(row.record.content.height > 0);
	assert_int_equal(index_begin_read(replica_index(b->p.replica), &t), 0);
	assert_int_equal(index_node_get(t, &row.record.content.root, &level, &payload), 0);
	assert_int_equal(level, row.record.content.height);
	index_abort(t);
	buf_deinit(&payload);
	row_deinit(&row);
	look_again(b);
}

/* --- property: whatever was done, a second look has nothing to say --- */

static uint64_t next_random(uint64_t *x)
{
	*x ^= *x << 13;
	*x ^= *x >> 7;
	*x ^= *x << 17;
	return *x;
}

static void edit_at_random(struct bench *b, uint64_t *x)
{
	static const char *const paths[] = {"a", "a/b", "a/b/c", "a/d", "a.x", "e", "e/f", "g.o", "a/g.o", "e/g.o/h"};
	const char *path = paths[next_random(x) % ARRAY_SIZE(paths)];
	const char *other = paths[next_random(x) % ARRAY_SIZE(paths)];
	char text[32];
	int fd;

	snprintf(text, sizeof(text), "%u", (unsigned)(next_random(x) % 4));
	switch (next_random(x) % 9) {
	case 0:
	case 1:
		fd = open(place_at(&b->p, path), O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW, 0644);
		if (fd >= 0) {
			assert_int_equal(write(fd, text, strlen(text)), (ssize_t)strlen(text));
			close(fd);
		}
		break;
	case 2:
	case 3:
		mkdir(place_at(&b->p, path), 0755);
		break;
	case 4:
		remove_any(b, path);
		break;
	case 5:
		rename(place_at(&b->p, path), place_at(&b->p, other));
		break;
	case 6:
		if (symlink(text, place_at(&b->p, path)) < 0)
			chmod(place_at(&b->p, path), next_random(x) % 2 ? 0700 : 0755);
		break;
	case 7:
		link(place_at(&b->p, path), place_at(&b->p, other));
		break;
	case 8:
		write_rules(b, next_random(x) % 2 ? "*.o\n" : "a/d\n");
		break;
	}
}

static void check_all(struct bench *b)
{
	struct index_cursor *c = NULL;
	struct index_txn *t = NULL;
	int r;

	assert_int_equal(index_begin_read(replica_index(b->p.replica), &t), 0);
	assert_int_equal(index_cursor_open(t, &c), 0);
	for (r = index_cursor_seek(c, ""); !r; r = index_cursor_next(c)) {
		struct row row = {0};
		char *path = NULL;

		assert_int_equal(index_cursor_get(c, &path, &row), 0);
		if (row_live(&row) && row.place == ROW_ON_DISK)
			assert_true(place_has(&b->p, path));
		if (!row_live(&row) && row.place == ROW_NOT_HERE && !strstr(path, ".o"))
			assert_false(strcmp(path, "a/d") && place_has(&b->p, path));
		free(path);
		row_deinit(&row);
	}
	assert_int_equal(r, INDEX_ABSENT);
	index_cursor_close(c);
	index_abort(t);
}

/* Two batches, of which one is recorded while the next one is seen. */
static void test_many(void **state)
{
	struct bench *b = *state;
	struct row row = {0};
	char path[32];

	place_mkdir(&b->p, "d");
	for (int i = 0; i < OBSERVE_BATCH + 500; i++) {
		snprintf(path, sizeof(path), "d/%d", i);
		place_write(&b->p, path, path);
	}
	assert_int_equal(mkfifo(place_at(&b->p, "d/20000-fifo"), 0600), 0);
	look(b);
	assert_int_equal(b->result.events, OBSERVE_BATCH + 501);
	assert_int_equal(b->result.created, OBSERVE_BATCH + 501);
	assert_string_equal(b->told.text, "8:d/20000-fifo:7 ");
	assert_int_equal(row_of(b, "d/777", &row), 0);
	assert_int_equal(row.record.content.size, 5);
	row_deinit(&row);
	look_again(b);
}

static void test_second_look_is_silent(void **state)
{
	struct bench *b = *state;
	uint64_t seed = getenv("SEED") ? strtoull(getenv("SEED"), NULL, 0) : (uint64_t)time(NULL), x = seed | 1;

	print_message("seed %llu\n", (unsigned long long)seed);
	for (int round = 0; round < 60; round++) {
		uint64_t n = next_random(&x) % 12;

		while (n--)
			edit_at_random(b, &x);
		look(b);
		for (int i = 0; b->result.raced && i < 10; i++) /* directories moved aside */
			look(b);
		look_again(b);
		check_all(b);
		if (round % 10 == 9) {
			place_close(&b->p);
			place_open(&b->p);
			look_again(b);
		}
	}
}

static unsigned syncs; /* of the file system */

int __real_file_syncfs(int fd);
int __wrap_file_syncfs(int fd);
int __wrap_file_syncfs(int fd)
{
	syncs++;
	return __real_file_syncfs(fd);
}

static uint64_t watched; /* the inode of a directory: how often it was synced */
static unsigned watched_syncs;

int __real_file_fsync(int fd);
int __wrap_file_fsync(int fd);
int __wrap_file_fsync(int fd)
{
	struct file_stat st;

	watched_syncs += file_stat_fd(fd, &st) == 0 && st.ino == watched;
	return __real_file_fsync(fd);
}

/* What a user deleted with its directory is gone for good before that is recorded, also where he made the directory anew. */
static void test_directory_made_anew_is_durable(void **state)
{
	struct bench *b = *state;
	struct file_stat st;

	place_mkdir(&b->p, "d");
	place_write(&b->p, "d/x", "text");
	place_mkdir(&b->p, "new");
	look(b);
	remove_any(b, "d/x");
	remove_any(b, "d");
	assert_int_equal(rename(place_at(&b->p, "new"), place_at(&b->p, "d")), 0);
	place_mkdir(&b->p, "new");
	assert_int_equal(file_stat_fd(store_root(replica_store(b->p.replica)), &st), 0);
	watched = st.ino;
	syncs = watched_syncs = 0;
	assert_int_equal(look_at(b, &(struct observe_path){.path = "d"}, 1), 0);
	assert_int_equal(b->result.deleted, 1);
	assert_true(watched_syncs + syncs > 0);
}

/* Is the name of what is in the root synced when only that path is looked at? */
static bool root_synced_by(struct bench *b, const char *path, unsigned events)
{
	struct file_stat st;

	assert_int_equal(file_stat_fd(store_root(replica_store(b->p.replica)), &st), 0);
	watched = st.ino;
	syncs = watched_syncs = 0;
	assert_int_equal(look_at(b, &(struct observe_path){.path = path}, 1), 0);
	assert_int_equal(b->result.events, events);
	return watched_syncs + syncs > 0;
}

/* A path that is looked at by itself may have come, or gone, with a directory far above it. */
static void test_names_above_are_durable(void **state)
{
	struct bench *b = *state;

	place_mkdir(&b->p, "a");
	place_mkdir(&b->p, "a/b");
	place_mkdir(&b->p, "a/b/c");
	place_write(&b->p, "a/b/c/x", "text");
	look(b);
	assert_int_equal(rename(place_at(&b->p, "a"), place_at(&b->p, "new")), 0);
	assert_true(root_synced_by(b, "new/b/c/x", 1));
	place_mkdir(&b->p, "a");
	place_mkdir(&b->p, "a/b");
	assert_true(root_synced_by(b, "a/b/c/x", 1));
	look(b);
	place_write(&b->p, "new/b/c/y", "text"); /* and no further than is needed */
	assert_false(root_synced_by(b, "new/b/c/y", 1));
}

/* An equal file in a file's place is no event, and yet what the index relies upon. */
static void test_equal_copies_are_durable(void **state)
{
	struct bench *b = *state;
	struct timespec times[2] = {{.tv_sec = 1000000000}, {.tv_sec = 1000000000}};

	for (unsigned k = 0; k < 2; k++) {
		place_write(&b->p, "copy", "text");
		assert_int_equal(utimensat(AT_FDCWD, place_at(&b->p, "copy"), times, 0), 0);
		assert_int_equal(rename(place_at(&b->p, "copy"), place_at(&b->p, "x")), 0);
		assert_true(root_synced_by(b, "x", k == 0));
	}
}

static bool listings_fail; /* at their end */

int __real_file_dir_next(struct file_dir *d, const char **ret_name);
int __wrap_file_dir_next(struct file_dir *d, const char **ret_name);
int __wrap_file_dir_next(struct file_dir *d, const char **ret_name)
{
	int r = __real_file_dir_next(d, ret_name);

	return r == FILE_END && listings_fail ? -EIO : r;
}

/* A directory became a file, where absences are unproven: there is no use in looking again at once, and for ever. */
static void test_file_over_unread_directory(void **state)
{
	struct bench *b = *state;

	place_mkdir(&b->p, "d");
	place_write(&b->p, "d/x", "text");
	look(b);
	remove_any(b, "d/x");
	remove_any(b, "d");
	place_write(&b->p, "d", "file");
	listings_fail = true;
	look(b);
	listings_fail = false;
	assert_int_equal(b->result.raced, 0);
	assert_int_equal(b->result.deleted, 0);
	assert_non_null(strstr(b->told.text, ":d:1002 "));
	assert_string_equal(state_of(b, "d/x"), ON_DISK);
	look(b);
	assert_int_equal(b->result.raced, 0);
	assert_int_equal(b->result.deleted, 1);
	assert_int_equal(b->result.changed, 1);
	look_again(b);
}

/* So it is with directories that are there only for what was below them: none of them is left below a file. */
static void test_file_over_unread_implied_directory(void **state)
{
	struct bench *b = *state;

	place_mkdir(&b->p, "d");
	place_mkdir(&b->p, "d/e");
	make_implied(b, "d", true);
	make_implied(b, "d/e", true);
	remove_any(b, "d/e");
	remove_any(b, "d");
	place_write(&b->p, "d", "file");
	listings_fail = true;
	look(b);
	listings_fail = false;
	assert_int_equal(b->result.raced, 0);
	assert_int_equal(b->result.events, 0);
	assert_non_null(strstr(b->told.text, ":d:1002 "));
	look(b);
	assert_string_equal(state_of(b, "d"), ON_DISK);
	assert_string_equal(state_of(b, "d/e"), TOMBSTONE);
	look_again(b);
}

/* Of a directory only what is in it was seen; then it is a file. As long as the deletions are held it is as if it was not there. */
static void test_file_over_held_deletions(void **state)
{
	struct bench *b = *state;
	const struct observe_path whole = {.path = ""};

	place_mkdir(&b->p, "d");
	place_write(&b->p, "d/x", "text");
	assert_int_equal(look_at(b, &(struct observe_path){.path = "d/x"}, 1), 0);
	assert_int_equal(b->result.created, 1);
	remove_any(b, "d/x");
	remove_any(b, "d");
	place_write(&b->p, "d", "file");
	b->recent = 1000;
	assert_int_equal(look_at(b, &whole, 1), 0);
	assert_int_equal(b->result.held, 1);
	assert_int_equal(b->result.events, 0);
	b->recent = 0;
	assert_int_equal(look_at(b, &whole, 1), 0);
	assert_int_equal(b->result.raced, 0);
	assert_int_equal(b->result.deleted, 1);
	assert_int_equal(b->result.created, 1);
	look_again(b);
}

/* Where nothing is lost nothing is held, however much was deleted a short while ago: nor what stands where directories were. */
static void test_nothing_to_hold(void **state)
{
	struct bench *b = *state;

	place_mkdir(&b->p, "e");
	place_write(&b->p, "f", "text");
	look(b);
	place_mkdir(&b->p, "d");
	make_implied(b, "d", false);
	b->recent = 1000;
	remove_any(b, "d");
	remove_any(b, "e");
	place_write(&b->p, "e", "was a directory");
	look(b);
	assert_string_equal(state_of(b, "d"), NO_ROW);
	assert_int_equal(b->result.changed, 1);
	assert_int_equal(rename(place_at(&b->p, "f"), place_at(&b->p, "g")), 0);
	look(b);
	assert_int_equal(b->result.held, 0);
	assert_int_equal(b->result.deleted, 1);
	assert_int_equal(b->result.counted, 0);
	look_again(b);
}

/* Of a directory that took a symlink's place only a file is named: it is recorded once the directory was seen. */
static void test_below_what_was_no_directory(void **state)
{
	struct bench *b = *state;

	assert_int_equal(symlink("elsewhere", place_at(&b->p, "d")), 0);
	look(b);
	remove_any(b, "d");
	place_mkdir(&b->p, "d");
	place_mkdir(&b->p, "d/e");
	place_write(&b->p, "d/e/x", "text");
	assert_int_equal(look_at(b, &(struct observe_path){.path = "d/e/x"}, 1), 0);
	assert_int_equal(b->result.raced, 1);
	assert_int_equal(b->result.events, 0);
	assert_int_equal(look_at(b, (struct observe_path[]){{.path = "d/e/x"}, {.path = "d"}}, 2), 0);
	look(b);
	assert_int_equal(b->result.raced, 0);
	assert_string_equal(state_of(b, "d/e/x"), ON_DISK);
	look_again(b);
}

static void become_file(int dirfd, const char *path, void *data)
{
	struct bench *b = data;

	(void)dirfd;
	if (strcmp(path, "e") != 0)
		return;
	remove_any(b, "d/m/x");
	remove_any(b, "d/m");
	place_write(&b->p, "d/m", "file");
}

/* What was looked at in a directory, of which the index does not know yet, is not below what takes its place in the same run. */
static void test_directory_that_becomes_a_file_meanwhile(void **state)
{
	struct bench *b = *state;

	look(b);
	place_mkdir(&b->p, "d");
	place_mkdir(&b->p, "d/m");
	place_write(&b->p, "d/m/x", "text");
	place_mkdir(&b->p, "e");
	b->directory = become_file;
	assert_int_equal(look_at(b, (struct observe_path[]){{.path = "d/m/x"}, {.path = "e"}, {.path = "d"}}, 3), 0);
	b->directory = NULL;
	assert_true(b->result.raced > 0);
	look(b);
	assert_string_equal(state_of(b, "d/m"), ON_DISK);
	assert_string_equal(state_of(b, "d/m/x"), TOMBSTONE);
	look_again(b);
}

/* A symlink's name is durable with its directory; a time that it was given, as by cp -a, with the file system only. */
static void test_times_of_symlinks_are_durable(void **state)
{
	static const struct timespec times[2] = {{.tv_nsec = UTIME_OMIT}, {.tv_sec = 1000000000}};
	struct bench *b = *state;

	look(b);
	syncs = 0;
	assert_int_equal(symlink("target", place_at(&b->p, "made")), 0);
	look(b);
	assert_int_equal(b->result.events, 1);
	assert_int_equal(syncs, 0);
	assert_int_equal(unlink(place_at(&b->p, "made")), 0); /* or it would be looked at again */
	assert_int_equal(symlink("target", place_at(&b->p, "copied")), 0);
	assert_int_equal(utimensat(AT_FDCWD, place_at(&b->p, "copied"), times, AT_SYMLINK_NOFOLLOW), 0);
	look(b);
	assert_int_equal(b->result.events, 2);
	assert_int_equal(syncs, 1);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_first_look, setup, teardown),
		cmocka_unit_test_setup_teardown(test_edit, setup, teardown),
		cmocka_unit_test_setup_teardown(test_touch, setup, teardown),
		cmocka_unit_test_setup_teardown(test_unstored_attributes, setup, teardown),
		cmocka_unit_test_setup_teardown(test_delete_and_recreate, setup, teardown),
		cmocka_unit_test_setup_teardown(test_kind_changes, setup, teardown),
		cmocka_unit_test_setup_teardown(test_ignored, setup, teardown),
		cmocka_unit_test_setup_teardown(test_held_again, setup, teardown),
		cmocka_unit_test_setup_teardown(test_in_the_way, setup, teardown),
		cmocka_unit_test_setup_teardown(test_directory_in_the_way, setup, teardown),
		cmocka_unit_test_setup_teardown(test_in_the_way_and_full, setup, teardown),
		cmocka_unit_test_setup_teardown(test_implied_directories, setup, teardown),
		cmocka_unit_test_setup_teardown(test_implied_directories_left_empty, setup, teardown),
		cmocka_unit_test_setup_teardown(test_raced, setup, teardown),
		cmocka_unit_test_setup_teardown(test_root_changed, setup, teardown),
		cmocka_unit_test_setup_teardown(test_several_paths, setup, teardown),
		cmocka_unit_test(test_over_budget),
		cmocka_unit_test_setup_teardown(test_budget_overall, setup, teardown),
		cmocka_unit_test_setup_teardown(test_budget_of_a_subtree, setup, teardown),
		cmocka_unit_test_setup_teardown(test_budget_and_renames, setup, teardown),
		cmocka_unit_test_setup_teardown(test_nothing_to_hold, setup, teardown),
		cmocka_unit_test_setup_teardown(test_budget_and_applied_deletions, setup, teardown),
		cmocka_unit_test_setup_teardown(test_suspect, setup, teardown),
		cmocka_unit_test_setup_teardown(test_suspect_in_part, setup, teardown),
		cmocka_unit_test_setup_teardown(test_undo_content, setup, teardown),
		cmocka_unit_test_setup_teardown(test_undo_attributes, setup, teardown),
		cmocka_unit_test_setup_teardown(test_undo_rename, setup, teardown),
		cmocka_unit_test_setup_teardown(test_undo_kinds, setup, teardown),
		cmocka_unit_test_setup_teardown(test_undo_waits, setup, teardown),
		cmocka_unit_test_setup_teardown(test_undo_first_meeting, setup, teardown),
		cmocka_unit_test_setup_teardown(test_undo_keeps_off, setup, teardown),
		cmocka_unit_test_setup_teardown(test_directory_made_anew_is_durable, setup, teardown),
		cmocka_unit_test_setup_teardown(test_names_above_are_durable, setup, teardown),
		cmocka_unit_test_setup_teardown(test_equal_copies_are_durable, setup, teardown),
		cmocka_unit_test_setup_teardown(test_file_over_unread_directory, setup, teardown),
		cmocka_unit_test_setup_teardown(test_file_over_unread_implied_directory, setup, teardown),
		cmocka_unit_test_setup_teardown(test_file_over_held_deletions, setup, teardown),
		cmocka_unit_test_setup_teardown(test_below_what_was_no_directory, setup, teardown),
		cmocka_unit_test_setup_teardown(test_directory_that_becomes_a_file_meanwhile, setup, teardown),
		cmocka_unit_test_setup_teardown(test_times_of_symlinks_are_durable, setup, teardown),
		cmocka_unit_test_setup_teardown(test_nodes, setup, teardown),
		cmocka_unit_test_setup_teardown(test_many, setup, teardown),
		cmocka_unit_test_setup_teardown(test_second_look_is_silent, setup, teardown),
	};
	int failed = cmocka_run_group_tests_name("observe", tests, NULL, NULL);

	threads = 3;
	/* without the last one, which is long */
	return failed + _cmocka_run_group_tests("observe, with threads", tests, ARRAY_SIZE(tests) - 1, NULL, NULL);
}
