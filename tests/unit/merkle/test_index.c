/* tests/unit/merkle/test_index.c — rows and what follows from them stay in step; damage and full
 * disks are told. */
#include <fcntl.h>
#include <pthread.h>
#include <sys/stat.h>
#include <time.h>

#include "merkle/index_check.h"
#include "tests/unit/merkle/index_help.h"

struct strings {
	char v[64][128];
	uint64_t seq[64];
	size_t n;
};

static int note(const char *path, void *data)
{
	struct strings *s = data;

	assert_true(s->n < 64);
	snprintf(s->v[s->n++], sizeof(s->v[0]), "%s", path);
	return 0;
}

static int note_change(uint64_t seq, const char *path, void *data)
{
	struct strings *s = data;

	s->seq[s->n] = seq;
	return note(path, s);
}

static int stop_now(const char *path, void *data)
{
	(void)path;
	++*(int *)data;
	return 42;
}

static void assert_row(struct index_txn *t, const char *path, const struct row *want)
{
	struct row got = {0};

	assert_int_equal(index_get(t, path, &got), 0);
	assert_true(record_equal(&got.record, &want->record));
	assert_int_equal(got.place, want->place);
	assert_true(stamp_equal(&got.stamp, &want->stamp) && got.stamp.exact == want->stamp.exact);
	assert_int_equal(got.recorded_ns, want->recorded_ns);
	assert_int_equal(got.since_ns, want->since_ns);
	assert_int_equal(got.seq, want->seq);
	row_deinit(&got);
}

static void assert_absent(struct index_txn *t, const char *path)
{
	struct row got = {0};

	assert_int_equal(index_get(t, path, &got), INDEX_ABSENT);
}

static struct index_counts counts(struct index_txn *t)
{
	struct index_counts n;

	assert_int_equal(index_counts(t, &n), 0);
	return n;
}

/* --- opening --- */

static void test_open(void **state)
{
	struct temp_index a;
	struct index_txn *w;
	struct stat st;
	struct index *x = NULL;

	(void)state;
	temp_directory(&a);
	assert_int_equal(index_open(&x, a.dir, false), INDEX_MISSING);
	assert_null(x);
	assert_int_equal(faccessat(a.dir, "data.mdb", F_OK, 0), -1); /* looking made nothing */
	assert_int_equal(index_open(&x, a.dir, true), 0);
	w = begin_write(x);
	assert_int_equal(index_set_key(w, 5, HASH_BLAKE2B), 0);
	put_file(w, "a/b", 1);
	assert_int_equal(index_commit(&w), 0);
	assert_null(w);
	index_close(x);
	assert_int_equal(fstatat(a.dir, "data.mdb", &st, 0), 0);
	assert_int_equal(st.st_mode & 07777, 0600);

	assert_int_equal(index_open(&x, a.dir, true), 0);
	index_close(x);
	assert_int_equal(index_open(&x, a.dir, false), 0);
	w = begin_read(x);
	assert_int_equal(counts(w).live, 1);
	index_abort(w);
	index_close(x);
	temp_remove(&a);
}

static void write_file(int dir, const char *name, const void *p, size_t n)
{
	int fd = openat(dir, name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	assert_true(fd >= 0);
	assert_int_equal(write(fd, p, n), n);
	close(fd);
}

/* Stores into a file's map need room on the disk: LMDB's lock file is none of its. Whatever is at its name goes, and nothing is
 * written through it. */
static void test_no_lock_file_on_the_disk(void **state)
{
	static const char *const found[] = {NULL, "a file", "a link", "a second link", "a link to nowhere"};
	struct temp_index a;
	struct index *x = NULL;
	struct stat st;

	(void)state;
	temp_directory(&a);
	write_file(a.dir, "precious", "precious", 8);
	for (size_t i = 0; i < ARRAY_SIZE(found); i++) {
		if (i == 1)
			write_file(a.dir, "lock.mdb", "stale", 5);
		else if (i == 3)
			assert_int_equal(linkat(a.dir, "precious", a.dir, "lock.mdb", 0), 0);
		else if (i)
			assert_int_equal(symlinkat(i == 2 ? "precious" : "/proc/self/fd/999", a.dir, "lock.mdb"), 0);
		assert_int_equal(index_open(&x, a.dir, i == 0), 0);
		assert_int_equal(fstatat(a.dir, "lock.mdb", &st, AT_SYMLINK_NOFOLLOW), -1);
		index_close(x);
		assert_int_equal(fstatat(a.dir, "precious", &st, 0), 0);
		assert_int_equal(st.st_size, 8);
		assert_int_equal(st.st_nlink, 1);
	}
	temp_remove(&a);
}

static void set_format(struct index *x, uint32_t format)
{
	struct index_txn *w = begin_write(x);

	index_scratch_begin(w);
	put_u32(&w->scratch, format);
	assert_int_equal(index_table_put(w, INDEX_TABLE_META, &(uint8_t){INDEX_META_FORMAT}, 1), 0);
	assert_int_equal(index_commit(&w), 0);
}

static uint32_t format_of(struct index *x)
{
	struct index_txn *t = begin_read(x);
	struct cursor c;
	uint32_t format;

	assert_int_equal(index_table_get(t, INDEX_TABLE_META, &(uint8_t){INDEX_META_FORMAT}, 1, &c), 0);
	format = get_u32(&c);
	index_abort(t);
	return format;
}

/* An older format is read, and is the present one from then on: the programs that know only that one refuse it then. */
static void test_older_format(void **state)
{
	struct temp_index a;
	struct index_txn *t;

	(void)state;
	temp_open(&a);
	assert_int_equal(format_of(a.x), INDEX_FORMAT);
	t = begin_write(a.x);
	put_file(t, "a/b", 1);
	assert_int_equal(index_commit(&t), 0);
	set_format(a.x, 1);
	for (int i = 0; i < 2; i++) {
		index_close(a.x);
		assert_int_equal(index_open(&a.x, a.dir, false), 0);
		assert_int_equal(format_of(a.x), INDEX_FORMAT);
		t = begin_read(a.x);
		assert_int_equal(counts(t).live, 1);
		index_abort(t);
	}
	temp_remove(&a);
}

static void test_open_strange_files(void **state)
{
	static uint8_t garbage[16384];
	struct temp_index a;
	struct index *x = NULL;
	struct stat st;

	(void)state;
	temp_directory(&a);
	assert_int_equal(symlinkat("elsewhere", a.dir, "data.mdb"), 0);
	assert_int_equal(index_open(&x, a.dir, true), -EPERM);
	assert_int_equal(faccessat(a.dir, "elsewhere", F_OK, 0), -1);
	unlinkat(a.dir, "data.mdb", 0);
	write_file(a.dir, "second", "", 0);
	assert_int_equal(linkat(a.dir, "second", a.dir, "data.mdb", 0), 0);
	assert_int_equal(index_open(&x, a.dir, true), -EPERM);
	unlinkat(a.dir, "data.mdb", 0);
	unlinkat(a.dir, "second", 0);
	memset(garbage, 'x', sizeof(garbage));
	write_file(a.dir, "data.mdb", garbage, sizeof(garbage));
	assert_int_equal(index_open(&x, a.dir, true), -EBADMSG);
	unlinkat(a.dir, "data.mdb", 0);

	write_file(a.dir, "data.mdb", "", 0); /* a crash right after the file was made */
	assert_int_equal(index_open(&x, a.dir, false), INDEX_MISSING);
	assert_int_equal(index_open(&x, a.dir, true), 0);

	set_format(x, 0); /* no format that ever was */
	index_close(x);
	assert_int_equal(index_open(&x, a.dir, true), -EPROTONOSUPPORT);
	temp_remove(&a);
	temp_directory(&a);
	assert_int_equal(index_open(&x, a.dir, true), 0);
	set_format(x, INDEX_FORMAT + 1);
	index_close(x);
	assert_int_equal(index_open(&x, a.dir, true), -EPROTONOSUPPORT);

	/* cut short: told, not a crash */
	assert_int_equal(fstatat(a.dir, "data.mdb", &st, 0), 0);
	int fd = openat(a.dir, "data.mdb", O_RDWR | O_CLOEXEC);
	assert_int_equal(ftruncate(fd, 2 * 4096), 0);
	close(fd);
	assert_int_equal(index_open(&x, a.dir, true), -EBADMSG);
	temp_remove(&a);
}

static void test_needs_key(void **state)
{
	struct temp_index a;
	struct index_txn *w;
	struct row r;

	(void)state;
	temp_directory(&a);
	assert_int_equal(index_open(&a.x, a.dir, true), 0);
	w = begin_write(a.x);
	file_row(&r, 1);
	assert_int_equal(index_put(w, "a", &r), -EINVAL);
	assert_int_equal(index_set_key(w, 1, 77), -EINVAL);
	assert_int_equal(index_set_key(w, 1, HASH_SHA256), 0);
	assert_int_equal(index_put(w, "a", &r), 0);
	row_deinit(&r);
	/* another algorithm: the old hashes mean nothing */
	assert_int_equal(index_set_key(w, 1, HASH_BLAKE2B), 0);
	assert_absent(w, "a");
	assert_int_equal(counts(w).live, 0);
	assert_int_equal(counts(w).head_seq, 1);
	assert_int_equal(counts(w).purged_seq, 1);
	assert_int_equal(index_commit(&w), 0);
	temp_remove(&a);
}

/* --- rows --- */

static void test_rows(void **state)
{
	struct temp_index a;
	struct index_txn *w;
	struct row file, tomb, implied;

	(void)state;
	temp_open(&a);
	w = begin_write(a.x);
	file_row(&file, 10);
	tombstone_row(&tomb, 5);
	implied_row(&implied);
	assert_absent(w, "f");
	assert_absent(w, "");
	assert_int_equal(index_put(w, "f", &file), 0);
	assert_int_equal(file.seq, 1);
	assert_int_equal(index_put(w, "t", &tomb), 0);
	assert_int_equal(tomb.seq, 2);
	assert_int_equal(index_put(w, "d", &implied), 0);
	assert_int_equal(implied.seq, 0);
	assert_row(w, "f", &file);
	assert_int_equal(index_commit(&w), 0);

	w = begin_read(a.x);
	assert_row(w, "f", &file);
	assert_row(w, "t", &tomb);
	assert_row(w, "d", &implied);
	assert_int_equal(counts(w).live, 1);
	assert_int_equal(counts(w).tombstones, 1);
	assert_int_equal(counts(w).bytes, file.record.content.size);
	assert_int_equal(counts(w).head_seq, 2);
	assert_int_equal(counts(w).purged_seq, 0);
	index_abort(w);

	/* each changes its class */
	w = begin_write(a.x);
	assert_int_equal(index_put(w, "f", &tomb), 0);
	assert_int_equal(index_put(w, "t", &implied), 0);
	assert_int_equal(index_put(w, "d", &file), 0);
	assert_row(w, "f", &tomb);
	assert_row(w, "t", &implied);
	assert_row(w, "d", &file);
	assert_int_equal(counts(w).live, 1);
	assert_int_equal(counts(w).tombstones, 1);
	assert_int_equal(counts(w).head_seq, 4);
	index_abort(w);

	w = begin_write(a.x);
	file.seq = 1;
	assert_row(w, "f", &file); /* the abort left nothing */
	assert_int_equal(index_drop(w, "t"), 0);
	assert_int_equal(index_drop(w, "t"), INDEX_ABSENT);
	assert_int_equal(counts(w).purged_seq, 2);
	assert_int_equal(index_drop(w, "d"), 0);
	assert_int_equal(counts(w).purged_seq, 2);
	assert_int_equal(index_drop(w, "f"), 0);
	assert_int_equal(index_commit(&w), 0);
	w = begin_read(a.x);
	assert_absent(w, "f");
	assert_int_equal(counts(w).live, 0);
	assert_int_equal(counts(w).bytes, 0);
	assert_int_equal(counts(w).purged_seq, 2);
	index_abort(w);
	row_deinit(&file);
	row_deinit(&tomb);
	row_deinit(&implied);
	temp_remove(&a);
}

static void test_bad_paths(void **state)
{
	static const char *const bad[] = {
		"", "/", "a/", "/a", "a//b", "..", "a/../b", ".", ".syncd", "x/.SyncD/y"};
	struct temp_index a;
	struct index_txn *w;
	struct row r;

	(void)state;
	temp_open(&a);
	w = begin_write(a.x);
	file_row(&r, 1);
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		assert_int_equal(index_put(w, bad[i], &r), -EINVAL);
	assert_int_equal(counts(w).live, 0);
	assert_int_equal(r.seq, 0);
	assert_int_equal(index_put(w, "good", &r), 0); /* a refusal harms nothing */
	assert_int_equal(index_commit(&w), 0);
	row_deinit(&r);
	temp_remove(&a);
}

static void test_restamp(void **state)
{
	struct temp_index a;
	struct index_txn *w;
	struct strings s = {0};
	struct row r, other;

	(void)state;
	temp_open(&a);
	w = begin_write(a.x);
	file_row(&r, 1);
	file_row(&other, 2);
	assert_int_equal(index_restamp(w, "f", &r), INDEX_ABSENT);
	assert_int_equal(index_put(w, "f", &r), 0);
	assert_int_equal(index_restamp(w, "f", &other), -EINVAL);
	r.stamp.ino = 4242;
	r.recorded_ns = 17;
	assert_int_equal(index_restamp(w, "f", &r), 0);
	assert_row(w, "f", &r);
	assert_int_equal(r.seq, 1);
	assert_int_equal(counts(w).head_seq, 1);
	assert_int_equal(index_by_inode(w, 4242, note, &s), 0);
	assert_int_equal(s.n, 1);
	s.n = 0;
	assert_int_equal(index_by_inode(w, 5000001, note, &s), 0);
	assert_int_equal(s.n, 0);
	r.place = ROW_IGNORED; /* no longer on disk: found neither by inode nor by content */
	assert_int_equal(index_restamp(w, "f", &r), 0);
	assert_int_equal(index_by_inode(w, 4242, note, &s), 0);
	assert_int_equal(index_by_content(w, &r.record.content, note, &s), 0);
	assert_int_equal(s.n, 0);
	assert_int_equal(counts(w).live, 1);
	assert_int_equal(index_commit(&w), 0);
	row_deinit(&r);
	row_deinit(&other);
	temp_remove(&a);
}

static void test_changes(void **state)
{
	struct temp_index a;
	struct index_txn *w;
	struct strings s = {0};

	(void)state;
	temp_open(&a);
	w = begin_write(a.x);
	put_file(w, "a", 1);
	put_file(w, "b", 2);
	put_tombstone(w, "c", 3);
	put_file(w, "a", 4); /* a row stands there once, at its newest */
	assert_int_equal(index_drop(w, "b"), 0);
	assert_int_equal(index_changes(w, 0, note_change, &s), 0);
	assert_int_equal(s.n, 2);
	assert_string_equal(s.v[0], "c");
	assert_int_equal(s.seq[0], 3);
	assert_string_equal(s.v[1], "a");
	assert_int_equal(s.seq[1], 4);
	s.n = 0;
	assert_int_equal(index_changes(w, 3, note_change, &s), 0);
	assert_int_equal(s.n, 1);
	assert_int_equal(index_changes(w, 4, note_change, &s), 0);
	assert_int_equal(index_changes(w, UINT64_MAX, note_change, &s), 0);
	assert_int_equal(s.n, 1);
	assert_int_equal(counts(w).purged_seq, 2);
	index_abort(w);
	temp_remove(&a);
}

static void test_by_content_and_inode(void **state)
{
	struct temp_index a;
	struct index_txn *w;
	struct strings s = {0};
	struct content content;
	struct row r;
	int calls = 0;

	(void)state;
	temp_open(&a);
	w = begin_write(a.x);
	for (int i = 0; i < 3; i++) {
		file_row(&r, 7);
		content = r.record.content;
		put_row(w, (const char *[]){"x", "y", "z"}[i], &r);
	}
	put_file(w, "other", 8);
	file_row(&r, 7);
	r.place = ROW_COLLIDES;
	put_row(w, "not-here", &r);
	assert_int_equal(index_by_content(w, &content, note, &s), 0);
	assert_int_equal(s.n, 3);
	s.n = 0;
	assert_int_equal(index_by_inode(w, 5000007, note, &s), 0);
	assert_int_equal(s.n, 3);
	assert_int_equal(index_by_content(w, &content, stop_now, &calls), 42);
	assert_int_equal(calls, 1);
	put_tombstone(w, "y", 1);
	assert_int_equal(index_drop(w, "x"), 0);
	s.n = 0;
	assert_int_equal(index_by_content(w, &content, note, &s), 0);
	assert_int_equal(index_by_inode(w, 5000007, note, &s), 0);
	assert_int_equal(s.n, 2);
	assert_string_equal(s.v[0], "z");
	content.size++; /* the root's name is not enough */
	s.n = 0;
	assert_int_equal(index_by_content(w, &content, note, &s), 0);
	assert_int_equal(s.n, 0);
	index_abort(w);
	temp_remove(&a);
}

static void check_brief(struct index_cursor *c, const struct row *r)
{
	struct row_brief brief;

	assert_int_equal(index_cursor_brief(c, &brief), 0);
	assert_int_equal(brief.live, row_live(r));
	assert_int_equal(brief.seq, r->seq);
	assert_int_equal(brief.place, r->place);
	assert_true(content_equal(&brief.content, &r->record.content));
	row_brief_deinit(&brief);
}

/* --- cursors --- */

static void test_cursor(void **state)
{
	static const char *const order[] = {"a", "a/b", "a/b/c", "a b", "a-b", "b", "b/x"};
	struct temp_index a;
	struct index_cursor *c;
	struct index_txn *w;
	struct path_key key;
	struct hash hash, want;
	struct row r;
	char *path;
	bool live;

	(void)state;
	temp_open(&a);
	w = begin_write(a.x);
	assert_int_equal(index_cursor_open(w, &c), 0);
	assert_int_equal(index_cursor_next(c), INDEX_ABSENT);
	assert_int_equal(index_cursor_get(c, &path, NULL), INDEX_ABSENT);
	assert_int_equal(index_cursor_seek(c, ""), INDEX_ABSENT);
	for (size_t i = ARRAY_SIZE(order); i-- > 0;) {
		if (i % 3 == 0) {
			implied_row(&r);
			put_row(w, order[i], &r);
		} else if (i % 3 == 1) {
			put_tombstone(w, order[i], i);
		} else {
			put_file(w, order[i], i);
		}
	}
	for (size_t from = 0; from < ARRAY_SIZE(order); from++)
		for (size_t to = from + 1; to < ARRAY_SIZE(order); to++) {
			assert_int_equal(index_cursor_seek(c, order[from]), 0);
			path_key(&key, order[to]);
			assert_int_equal(index_cursor_forward(c, &key), 0);
			assert_int_equal(index_cursor_get(c, &path, NULL), 0);
			assert_string_equal(path, order[to]);
			free(path);
		}
	assert_int_equal(index_cursor_seek(c, "b"), 0);
	key = (struct path_key){1, {0xff}};
	assert_int_equal(index_cursor_forward(c, &key), INDEX_ABSENT);
	for (size_t from = 0; from < ARRAY_SIZE(order); from++) {
		size_t i = from;
		int s = index_cursor_seek(c, from ? order[from] : "");

		for (; !s; s = index_cursor_next(c), i++) {
			r = (struct row){0};
			assert_int_equal(index_cursor_get(c, &path, &r), 0);
			assert_string_equal(path, order[i]);
			path_key(&key, path);
			assert_int_equal(path_key_compare(index_cursor_key(c), &key), 0);
			check_brief(c, &r);
			assert_int_equal(index_cursor_peek(c, &key, &hash, &live), i % 3 != 0);
			if (i % 3) {
				assert_int_equal(live, i % 3 == 2);
				assert_int_equal(
					record_hash(HASH_SHA256, path, &r.record, &want), 0);
				assert_true(hash_equal(&hash, &want));
			}
			free(path);
			row_deinit(&r);
		}
		assert_int_equal(s, INDEX_ABSENT);
		assert_int_equal(i, ARRAY_SIZE(order));
		assert_int_equal(index_cursor_next(c), INDEX_ABSENT);
	}

	/* rows come and go under a standing cursor */
	assert_int_equal(index_cursor_seek(c, "a/b/c"), 0);
	assert_int_equal(index_drop(w, "a/b/c"), 0);
	assert_int_equal(index_cursor_get(c, &path, NULL), INDEX_ABSENT);
	assert_int_equal(index_cursor_brief(c, &(struct row_brief){0}), INDEX_ABSENT);
	assert_false(index_cursor_peek(c, &key, &hash, &live));
	put_file(w, "a/b/d", 3);
	assert_int_equal(index_cursor_next(c), 0);
	assert_int_equal(index_cursor_get(c, &path, NULL), 0);
	assert_string_equal(path, "a/b/d");
	free(path);
	put_tombstone(w, "a/b/d", 9); /* into another table */
	assert_int_equal(index_cursor_get(c, &path, NULL), 0);
	assert_string_equal(path, "a/b/d");
	free(path);
	assert_int_equal(index_cursor_seek(c, "b/x"), 0);
	assert_int_equal(index_drop(w, "b/x"), 0);
	assert_int_equal(index_cursor_next(c), INDEX_ABSENT);
	index_cursor_close(c);
	index_abort(w);
	temp_remove(&a);
}

/* Every row is visited once, whatever is dropped and put behind and at the cursor on the way. */
static void test_cursor_with_writes(void **state)
{
	struct temp_index a;
	struct index_cursor *c;
	struct index_txn *w;
	char name[32], *path;
	unsigned i = 0;
	int s;

	(void)state;
	temp_open(&a);
	w = begin_write(a.x);
	for (unsigned k = 0; k < 2000; k++) {
		snprintf(name, sizeof(name), "f%04u", k);
		put_file(w, name, k);
	}
	assert_int_equal(index_cursor_open(w, &c), 0);
	for (s = index_cursor_seek(c, ""); !s; s = index_cursor_next(c), i++) {
		assert_int_equal(index_cursor_get(c, &path, NULL), 0);
		snprintf(name, sizeof(name), "f%04u", i);
		assert_string_equal(path, name);
		if (i % 3 == 0)
			assert_int_equal(index_drop(w, path), 0);
		else if (i % 3 == 1)
			put_tombstone(w, path, i);
		else
			put_file(w, path, i + 5);
		free(path);
	}
	assert_int_equal(i, 2000);
	index_cursor_close(c);
	assert_int_equal(index_commit(&w), 0);
	temp_remove(&a);
}

/* --- long names --- */

static void long_path(char *ret, char fill, size_t n, const char *tail)
{
	memset(ret, fill, n);
	for (size_t i = 200; i < n; i += 201)
		ret[i] = '/';
	strcpy(ret + n, tail);
}

static void test_long_paths(void **state)
{
	static const size_t lengths[] = {
		438, 439, 440, 441, 442, 470, 471, 472, 473, 474, 800, 4000};
	struct temp_index a;
	struct index_cursor *c;
	struct index_txn *w;
	char path[4200], *got;
	size_t seen = 0;
	int s;

	(void)state;
	temp_open(&a);
	for (size_t i = 0; i < ARRAY_SIZE(lengths); i++) {
		char below[4300];
		struct row r;

		w = begin_write(a.x);
		long_path(path, 'q', lengths[i], "");
		if (path[lengths[i] - 1] == '/')
			path[lengths[i] - 1] = 'q';
		assert_true(path_valid(path));
		snprintf(below, sizeof(below), "%s/b/c", path);
		assert_int_equal(index_any_live_below(w, path), 0);
		put_tombstone(w, below, 1);
		put_file(w, path, i); /* not below itself */
		assert_int_equal(index_any_live_below(w, path), 0);
		put_file(w, below, i);
		assert_int_equal(index_any_live_below(w, path), 1);
		snprintf(below, sizeof(below), "%s/b", path);
		assert_int_equal(index_any_live_below(w, below), 1);
		snprintf(below, sizeof(below), "%s/", path);
		below[strlen(path) - 1] = 'r'; /* a neighbour */
		below[strlen(path)] = '\0';
		assert_int_equal(index_any_live_below(w, below), 0);
		r = (struct row){0};
		assert_int_equal(index_get(w, path, &r), 0);
		row_deinit(&r);
		index_abort(w);
	}

	w = begin_write(a.x);
	for (unsigned i = 0; i < 300; i++) {
		char tail[16];

		snprintf(tail, sizeof(tail), "/t%u", i);
		long_path(path, 'z', 600, tail);
		put_file(w, path, i);
	}
	assert_int_equal(index_any_live_below(w, ""), 1);
	assert_int_equal(index_any_live_below(w, "zz"), 0);
	assert_int_equal(index_cursor_open(w, &c), 0);
	for (s = index_cursor_seek(c, ""); !s; s = index_cursor_next(c), seen++) {
		struct row r = {0};

		assert_int_equal(index_cursor_get(c, &got, NULL), 0);
		assert_int_equal(index_get(w, got, &r), 0); /* the whole path came back */
		check_brief(c, &r);
		assert_true(strlen(got) > 600);
		row_deinit(&r);
		free(got);
	}
	assert_int_equal(seen, 300);
	index_cursor_close(c);
	index_abort(w);
	temp_remove(&a);
}

static void test_any_live_below(void **state)
{
	struct temp_index a;
	struct index_txn *w;
	struct row r;

	(void)state;
	temp_open(&a);
	w = begin_write(a.x);
	assert_int_equal(index_any_live_below(w, ""), 0);
	put_tombstone(w, "d/x", 1);
	implied_row(&r);
	put_row(w, "d/i", &r);
	put_file(w, "d-e", 1);
	put_file(w, "d", 1);
	assert_int_equal(index_any_live_below(w, "d"), 0);
	assert_int_equal(index_any_live_below(w, ""), 1);
	put_file(w, "d/i/n", 1);
	assert_int_equal(index_any_live_below(w, "d"), 1);
	assert_int_equal(index_any_live_below(w, "d/i"), 1);
	assert_int_equal(index_any_live_below(w, "d/i/n"), 0);
	index_abort(w);
	temp_remove(&a);
}

static void test_any_leaf_above(void **state)
{
	static const char *const open[] = {"", "file", "files/x", "gone/x", "implied/x", "ignored/x", "directory/x"};
	static const char *const closed[] = {"file/x", "file/x/y", "file/implied/x"};
	struct temp_index a;
	struct index_txn *w;
	struct row r;

	(void)state;
	temp_open(&a);
	w = begin_write(a.x);
	put_file(w, "file", 1);
	put_tombstone(w, "gone", 2);
	implied_row(&r);
	put_row(w, "implied", &r);
	implied_row(&r);
	put_row(w, "file/implied", &r);
	file_row(&r, 3);
	r.place = ROW_IGNORED;
	put_row(w, "ignored", &r);
	r = (struct row){.place = ROW_ON_DISK, .record = {.live = true, .kind = RECORD_DIRECTORY, .mode = 0755}};
	row_event(&r, 4);
	assert_int_equal(version_dots_add(&r.record.adots, (struct version_dot){HELP_INC, 4}), 0);
	put_row(w, "directory", &r);
	for (size_t i = 0; i < ARRAY_SIZE(open); i++)
		assert_int_equal(index_any_leaf_above(w, open[i]), 0);
	for (size_t i = 0; i < ARRAY_SIZE(closed); i++)
		assert_int_equal(index_any_leaf_above(w, closed[i]), 1);
	index_abort(w);
	temp_remove(&a);
}

static void test_count_live(void **state)
{
	char deep[3000] = "d";
	struct temp_index a;
	struct index_txn *w;
	uint64_t n = 7;

	(void)state;
	temp_open(&a);
	w = begin_write(a.x);
	assert_int_equal(index_count_live(w, "d", &n), 0);
	assert_int_equal(n, 0);
	put_file(w, "c", 1);
	put_file(w, "d", 1);
	put_file(w, "d-e", 1);
	put_file(w, "d-e/f", 1);
	put_file(w, "d/x/y", 1);
	put_tombstone(w, "d/z", 1);
	put_file(w, "da", 1);
	for (size_t i = 1; i < 2900; i++)
		deep[i] = i % 100 == 1 ? '/' : 'n';
	put_file(w, deep, 1); /* its key is cut */
	assert_int_equal(index_count_live(w, "d", &n), 0);
	assert_int_equal(n, 3);
	assert_int_equal(index_count_live(w, "d-e", &n), 0);
	assert_int_equal(n, 2);
	assert_int_equal(index_count_live(w, "zz", &n), 0);
	assert_int_equal(n, 0);
	assert_int_equal(index_count_live(w, deep, &n), -EINVAL);
	index_abort(w);
	temp_remove(&a);
}

/* --- nodes --- */

struct made_nodes {
	struct hash hash[64];
	uint8_t level[64];
	void *payload[64];
	size_t n[64], count;
};

static int keep_node(
	const struct hash *hash, uint8_t level, const void *payload, size_t n, void *data)
{
	struct made_nodes *m = data;

	assert_true(m->count < 64);
	m->hash[m->count] = *hash;
	m->level[m->count] = level;
	m->payload[m->count] = memcpy(malloc(n), payload, n);
	m->n[m->count++] = n;
	return 0;
}

static void make_nodes(
	struct made_nodes *ret, uint64_t seed, unsigned chunks, struct content *ret_content)
{
	struct chunk_tree_builder *b;

	ret->count = 0;
	assert_int_equal(chunk_tree_builder_new(&b, HASH_SHA256, keep_node, ret), 0);
	for (unsigned i = 0; i < chunks; i++) {
		uint64_t name = seed * 100000 + i;
		struct chunk c = {.offset = (uint64_t)i * 1000, .length = 1000};

		hash_bytes(HASH_SHA256, &name, sizeof(name), &c.hash);
		assert_int_equal(chunk_tree_builder_add(b, &c), 0);
	}
	assert_int_equal(chunk_tree_builder_finish(b, ret_content), 0);
	ret_content->chunk_bits = CHUNK_BITS_MIN;
	chunk_tree_builder_free(b);
}

static void put_nodes(struct index_txn *w, const struct made_nodes *m)
{
	for (size_t i = 0; i < m->count; i++)
		assert_int_equal(
			index_node_put(w, &m->hash[i], m->level[i], m->payload[i], m->n[i]), 0);
}

static void free_nodes(struct made_nodes *m)
{
	while (m->count)
		free(m->payload[--m->count]);
}

static size_t count_nodes(struct index_txn *t)
{
	MDB_stat s;

	assert_int_equal(mdb_stat(t->txn, t->x->dbi[INDEX_TABLE_NODES], &s), 0);
	return s.ms_entries;
}

static int put_big(struct index_txn *w, const char *path, const struct content *content)
{
	struct row r;
	int got;

	file_row(&r, 1);
	r.record.content = *content;
	got = index_put(w, path, &r);
	row_deinit(&r);
	return got;
}

static void test_nodes(void **state)
{
	static struct made_nodes m, m2;
	struct temp_index a;
	struct index_txn *w;
	struct content content, content2;
	struct buf payload = BUF_INIT;
	uint8_t level;

	(void)state;
	temp_open(&a);
	make_nodes(&m, 1, 600, &content);
	make_nodes(&m2, 2, 300, &content2);
	assert_true(content.height >= 2);
	w = begin_write(a.x);
	assert_int_equal(put_big(w, "big", &content), -EINVAL); /* its nodes are not there */
	assert_absent(w, "big");
	assert_int_equal(index_node_put(w, &m.hash[m.count - 1], m.level[m.count - 1],
				 m.payload[m.count - 1], m.n[m.count - 1]),
		-EINVAL); /* nor are the children */
	assert_int_equal(index_node_put(w, &m.hash[1], m.level[0], m.payload[0], m.n[0]), -EBADMSG);
	put_nodes(w, &m);
	put_nodes(w, &m); /* again is nothing */
	assert_int_equal(put_big(w, "big", &content), 0);
	assert_int_equal(put_big(w, "copy", &content), 0);
	assert_int_equal(index_node_get(w, &content.root, &level, &payload), 0);
	assert_int_equal(level, content.height);
	assert_int_equal(payload.len, m.n[m.count - 1]);
	buf_deinit(&payload);
	assert_int_equal(index_commit(&w), 0);

	w = begin_write(a.x);
	assert_int_equal(count_nodes(w), m.count);
	assert_int_equal(index_drop(w, "big"), 0);
	assert_int_equal(index_commit(&w), 0);
	w = begin_write(a.x);
	assert_int_equal(count_nodes(w), m.count); /* the copy holds them */
	put_tombstone(w, "copy", 5);		   /* a rename within one transaction */
	assert_int_equal(put_big(w, "renamed", &content), 0);
	assert_int_equal(index_commit(&w), 0);
	w = begin_write(a.x);
	assert_int_equal(count_nodes(w), m.count);
	put_nodes(w, &m2);
	assert_int_equal(put_big(w, "renamed", &content2), 0); /* other content: the old nodes go */
	assert_int_equal(index_commit(&w), 0);
	w = begin_write(a.x);
	assert_int_equal(count_nodes(w), m2.count);
	assert_int_equal(index_node_get(w, &content.root, &level, &payload), INDEX_ABSENT);
	put_nodes(w, &m); /* never referred to */
	assert_int_equal(index_commit(&w), 0);
	w = begin_write(a.x);
	assert_int_equal(count_nodes(w), m.count + m2.count);
	assert_int_equal(index_node_sweep(w), 0);
	assert_int_equal(index_commit(&w), 0);
	w = begin_write(a.x);
	assert_int_equal(count_nodes(w), m2.count);
	assert_int_equal(index_drop(w, "renamed"), 0);
	assert_int_equal(index_commit(&w), 0);
	w = begin_read(a.x);
	assert_int_equal(count_nodes(w), 0);
	index_abort(w);
	free_nodes(&m);
	free_nodes(&m2);
	temp_remove(&a);
}

/* --- meta, intents, lineage --- */

static void test_meta(void **state)
{
	struct temp_index a;
	struct buf b = BUF_INIT, big = BUF_INIT;
	struct index_txn *w;

	(void)state;
	temp_open(&a);
	w = begin_write(a.x);
	assert_int_equal(index_meta_get(w, INDEX_META_KNOWLEDGE, &b), INDEX_ABSENT);
	assert_int_equal(index_meta_put(w, INDEX_META_KNOWLEDGE, "k", 1), 0);
	assert_non_null(memset(buf_reserve(&big, 300000), 'm', 300000));
	assert_int_equal(index_meta_put(w, INDEX_META_MEMBERS, big.data, big.len), 0);
	assert_int_equal(index_meta_put(w, INDEX_META_POLICY, NULL, 0), 0);
	assert_int_equal(index_meta_put(w, INDEX_META_FORMAT, "x", 1), -EINVAL);
	assert_int_equal(index_meta_put(w, INDEX_META_PURGED_SEQ, "x", 1), -EINVAL);
	assert_int_equal(index_meta_put(w, (enum index_meta)INDEX_META_COUNTS, "x", 1), -EINVAL);
	assert_int_equal(index_commit(&w), 0);
	w = begin_read(a.x);
	put_u8(&b, '+');
	assert_int_equal(index_meta_get(w, INDEX_META_KNOWLEDGE, &b), 0); /* appended */
	assert_int_equal(b.len, 2);
	assert_memory_equal(b.data, "+k", 2);
	buf_clear(&b);
	assert_int_equal(index_meta_get(w, INDEX_META_MEMBERS, &b), 0);
	assert_int_equal(b.len, big.len);
	assert_memory_equal(b.data, big.data, big.len);
	buf_clear(&b);
	assert_int_equal(index_meta_get(w, INDEX_META_POLICY, &b), 0);
	assert_int_equal(b.len, 0);
	index_abort(w);
	buf_deinit(&b);
	buf_deinit(&big);
	temp_remove(&a);
}

static int note_intent(uint64_t batch, uint32_t number, const void *p, size_t n, void *data)
{
	struct strings *s = data;

	snprintf(s->v[s->n++], sizeof(s->v[0]), "%llu.%u %.*s", (unsigned long long)batch, number,
		(int)n, (const char *)p);
	return 0;
}

static void test_intents(void **state)
{
	struct temp_index a;
	struct index_txn *w;
	struct strings s = {0};

	(void)state;
	temp_open(&a);
	w = begin_write(a.x);
	assert_int_equal(index_intent_put(w, 9, 1, "nine", 4), 0);
	assert_int_equal(index_intent_put(w, 300, 2, "b", 1), 0);
	assert_int_equal(index_intent_put(w, 300, 0, "a", 1), 0);
	assert_int_equal(index_intent_put(w, UINT64_MAX, UINT32_MAX, "z", 1), 0);
	assert_int_equal(index_intents(w, note_intent, &s), 0);
	assert_int_equal(s.n, 4);
	assert_string_equal(s.v[0], "9.1 nine");
	assert_string_equal(s.v[1], "300.0 a");
	assert_string_equal(s.v[2], "300.2 b");
	assert_int_equal(index_intent_drop_batch(w, 300), 0);
	assert_int_equal(index_intent_drop_batch(w, 301), 0);
	assert_int_equal(index_intent_drop_batch(w, UINT64_MAX), 0);
	s.n = 0;
	assert_int_equal(index_intents(w, note_intent, &s), 0);
	assert_int_equal(s.n, 1);
	index_abort(w);
	temp_remove(&a);
}

static void test_lineage(void **state)
{
	struct temp_index a;
	struct index_txn *w;
	struct version_lineage *l;

	(void)state;
	temp_open(&a);
	w = begin_write(a.x);
	for (uint64_t i = 1; i <= 300;
		i++) { /* parents first: the order of putting must come back */
		struct version_incarnation inc = {.inc = 1000 - i,
			.parent = i > 1 ? 1001 - i : 0,
			.from = i > 1 ? i : 0,
			.replica = 5};

		assert_int_equal(index_lineage_put(w, &inc), 0);
	}
	assert_int_equal(index_commit(&w), 0);
	w = begin_read(a.x);
	assert_int_equal(version_lineage_new(&l), 0);
	assert_int_equal(index_lineage_load(w, l), 0);
	assert_int_equal(version_lineage_count(l), 300);
	assert_int_equal(version_lineage_at(l, 299)->inc, 700);
	assert_int_equal(index_lineage_load(w, l), 0); /* known already: nothing */
	version_lineage_free(l);
	index_abort(w);
	temp_remove(&a);
}

/* --- damage, a full disk, many threads --- */

static void flip_value(
	struct index_txn *w, enum index_table table, const void *key, size_t key_n, size_t at)
{
	MDB_val k = {key_n, (void *)key}, v;
	uint8_t copy[1024];

	assert_int_equal(mdb_get(w->txn, w->x->dbi[table], &k, &v), 0);
	assert_true(v.mv_size <= sizeof(copy));
	memcpy(copy, v.mv_data, v.mv_size);
	copy[at % v.mv_size] ^= 0x10;
	v.mv_data = copy;
	assert_int_equal(mdb_put(w->txn, w->x->dbi[table], &k, &v, 0), 0);
}

static void test_damage(void **state)
{
	struct temp_index a;
	struct index_txn *w;
	struct index_cursor *c;
	struct path_key key;
	struct strings s = {0};
	struct buf b = BUF_INIT;
	struct row r = {0};
	struct hash hash;
	char *path;
	bool live;

	(void)state;
	temp_open(&a);
	path_key(&key, "f");
	for (size_t at = 0; at < 200; at += 7) {
		w = begin_write(a.x);
		put_file(w, "f", 1);
		flip_value(w, INDEX_TABLE_LIVE, key.bytes, key.len, at);
		assert_int_equal(index_get(w, "f", &r), -EBADMSG);
		assert_int_equal(index_drop(w, "f"), -EBADMSG);
		assert_int_equal(index_cursor_open(w, &c), 0);
		assert_int_equal(index_cursor_seek(c, ""), 0);
		assert_int_equal(index_cursor_get(c, &path, NULL), -EBADMSG);
		assert_false(index_cursor_peek(c, &key, &hash, &live));
		index_cursor_close(c);
		assert_int_equal(tree_root(w, TREE_LIVE, &hash), -EBADMSG);
		assert_int_equal(index_commit(&w), -EBADMSG);
	}
	w = begin_write(a.x);
	put_file(w, "f", 1);
	flip_value(w, INDEX_TABLE_CHANGES, &(uint64_t){htobe64(1)}, 8, 9);
	assert_int_equal(index_changes(w, 0, note_change, &s), -EBADMSG);
	assert_int_equal(index_by_inode(w, 5000001, note, &s), -EBADMSG);
	assert_int_equal(index_meta_put(w, INDEX_META_KNOWLEDGE, "abc", 3), 0);
	flip_value(w, INDEX_TABLE_META, &(uint8_t){INDEX_META_KNOWLEDGE}, 1, 10);
	assert_int_equal(index_meta_get(w, INDEX_META_KNOWLEDGE, &b), -EBADMSG);
	assert_int_equal(index_intent_put(w, 1, 1, "x", 1), 0);
	index_abort(w);

	/* an entry that had to be there is not: the transaction can't be committed */
	w = begin_write(a.x);
	put_file(w, "f", 1);
	assert_int_equal(index_table_delete(w, INDEX_TABLE_CHANGES, &(uint64_t){htobe64(1)}, 8), 0);
	assert_int_equal(index_drop(w, "f"), -EBADMSG);
	file_row(&r, 3);
	assert_int_equal(index_put(w, "g", &r), -EBADMSG);
	row_deinit(&r);
	assert_int_equal(index_commit(&w), -EBADMSG);
	w = begin_read(a.x);
	assert_int_equal(counts(w).live, 0);
	index_abort(w);
	temp_remove(&a);
}

/* --- a file that rots --- */

/* All kinds of pages: branches, overflow runs, free ones. */
static void fill(struct index *x)
{
	static const uint8_t big[20000];
	char path[64];

	for (unsigned round = 0; round < 4; round++) {
		struct index_txn *w = begin_write(x);

		for (unsigned k = 0; k < 300; k++) {
			snprintf(path, sizeof(path), "directory %u/file %u", k % 7, k * 4 + round);
			put_file(w, path, k * 4 + round);
		}
		for (unsigned k = 0; round > 0 && k < 300; k += 3) {
			snprintf(path, sizeof(path), "directory %u/file %u", k % 7, k * 4 + round - 1);
			assert_int_equal(index_drop(w, path), 0);
		}
		assert_int_equal(index_intent_put(w, round, 0, big, sizeof(big)), 0);
		if (round > 1)
			assert_int_equal(index_intent_drop_batch(w, round - 2), 0);
		assert_int_equal(index_commit(&w), 0);
	}
}

static int open_and_read(int dir)
{
	struct strings s = {0};
	struct index *x;
	struct index_cursor *c;
	struct index_txn *t;
	struct hash hash;
	int r;

	unlinkat(dir, INDEX_SEAL, 0); /* the clock of files is too coarse to tell this damage by their times */
	r = index_open(&x, dir, false);
	if (r)
		return r;
	t = begin_read(x);
	assert_int_equal(counts(t).live, 900);
	assert_int_equal(tree_root(t, TREE_LIVE, &hash), 0);
	assert_int_equal(index_cursor_open(t, &c), 0);
	for (r = index_cursor_seek(c, ""); r == 0; r = index_cursor_next(c)) {
		struct row row = {0};

		assert_int_equal(index_cursor_get(c, NULL, &row), 0);
		s.n++;
		row_deinit(&row);
	}
	assert_int_equal(s.n, 900);
	index_cursor_close(c);
	index_abort(t);
	t = begin_write(x); /* free pages are taken */
	put_file(t, "new", 77);
	assert_int_equal(index_drop(t, "new"), 0);
	assert_int_equal(index_commit(&t), 0);
	index_close(x);
	return 0;
}

static size_t read_back(int dir, uint8_t *ret, size_t n)
{
	int fd = openat(dir, "data.mdb", O_RDONLY | O_CLOEXEC);
	ssize_t got = read(fd, ret, n);

	assert_true(got > 0);
	close(fd);
	return (size_t)got;
}

/* An index that was closed in order is not read again, until anything about it is another. */
static void test_seal(void **state)
{
	struct timespec times[2] = {{.tv_nsec = UTIME_OMIT}, {.tv_sec = 1}};
	char seal[200] = {0};
	struct temp_index a;
	int64_t first, again, now = (int64_t)time(NULL);
	int fd;

	(void)state;
	temp_open(&a);
	assert_int_equal(faccessat(a.dir, INDEX_SEAL, F_OK, 0), -1); /* not while it is open */
	index_close(steal(a.x));
	assert_int_equal(index_check_sealed(a.dir, &first), 0);
	assert_in_range(first, now - 60, now + 60);
	assert_int_equal(faccessat(a.dir, INDEX_SEAL, F_OK, 0), -1);
	index_seal(a.dir, now - INDEX_SEAL_S / 2);
	fd = openat(a.dir, INDEX_SEAL, O_RDONLY);
	assert_true(read(fd, seal, sizeof(seal) - 1) > 20);
	close(fd);
	assert_int_equal(index_check_sealed(a.dir, &again), 0);
	assert_int_equal(again, now - INDEX_SEAL_S / 2); /* it was spared */
	index_seal(a.dir, now - INDEX_SEAL_S - 5);
	assert_int_equal(index_check_sealed(a.dir, &again), 0);
	assert_true(again >= now); /* it was too long ago */
	index_seal(a.dir, now + 500);
	assert_int_equal(index_check_sealed(a.dir, &again), 0);
	assert_true(again < now + 500); /* not in the future */
	index_seal(a.dir, now - 9);
	assert_int_equal(utimensat(a.dir, "data.mdb", times, 0), 0);
	assert_int_equal(index_check_sealed(a.dir, &again), 0);
	assert_true(again >= now); /* it was touched */
	write_file(a.dir, INDEX_SEAL, seal, 20);
	assert_int_equal(index_check_sealed(a.dir, &again), 0);
	assert_true(again >= now); /* torn */
	assert_int_equal(index_open(&a.x, a.dir, false), 0);
	index_distrust(a.x);
	index_close(steal(a.x));
	assert_int_equal(faccessat(a.dir, INDEX_SEAL, F_OK, 0), -1);
	temp_remove(&a);
}

/* Whatever bytes rot, and wherever the file is cut: it is told, or does no harm. Never a crash, or a row that is missing. */
static void test_rot(void **state)
{
	static uint8_t whole[2 << 20], rotten[sizeof(whole)];
	uint64_t seed = 20261121, told = 0;
	char what[INDEX_CHECK_TEXT_BYTES];
	struct temp_index a;
	size_t n;
	int r;

	(void)state;
	temp_open(&a);
	fill(a.x);
	index_close(steal(a.x));
	assert_int_equal(index_check(a.dir, what), 0);
	n = read_back(a.dir, whole, sizeof(whole));
	assert_true(n > 50 * 4096 && n < sizeof(whole));
	for (size_t page = 0; page < n; page += 4096) {
		for (int k = 0; k < 6; k++) {
			size_t at = page + (size_t)(k < 3 ? next_random(&seed) % 64 : next_random(&seed) % 4096);

			memcpy(rotten, whole, n);
			if (k % 3)
				rotten[at] ^= (uint8_t)(1 << next_random(&seed) % 8);
			else
				memset(rotten + at, k % 2 ? 0 : 0xff, page + 4096 - at);
			write_file(a.dir, "data.mdb", rotten, n);
			r = open_and_read(a.dir);
			assert_true(r == 0 || r == -EBADMSG || (r == -EPROTONOSUPPORT && at < 24));
			told += r != 0;
		}
	}
	printf("%zu pages, %" PRIu64 " of %zu damages told\n", n / 4096, told, n / 4096 * 6);
	assert_true(told > n / 4096);
	for (size_t cut = 1; cut < n - 16384; cut += 2500) {
		write_file(a.dir, "data.mdb", whole, cut);
		unlinkat(a.dir, INDEX_SEAL, 0);
		assert_int_equal(index_open(&a.x, a.dir, true), -EBADMSG);
		assert_int_equal(index_check(a.dir, what), -EBADMSG);
		assert_non_null(strstr(what, "cut short"));
	}
	/* two pages in each other's place, whole as they are */
	for (size_t page = 2 * 4096; page + 8192 <= n; page += 4096) {
		memcpy(rotten, whole, n);
		memcpy(rotten + page, whole + page + 4096, 4096);
		memcpy(rotten + page + 4096, whole + page, 4096);
		write_file(a.dir, "data.mdb", rotten, n);
		r = open_and_read(a.dir);
		assert_true(r == 0 || r == -EBADMSG); /* 0: both free, or inside an overflow run of zeros */
	}
	temp_remove(&a);
}

static void test_full(void **state)
{
	struct temp_index a;
	struct index_txn *w;
	struct row r = {0};
	char path[64];
	int got = 0;

	(void)state;
	temp_open(&a);
	assert_int_equal(mdb_env_set_mapsize(a.x->env, 1 << 20), 0);
	w = begin_write(a.x);
	put_file(w, "before", 1);
	assert_int_equal(index_commit(&w), 0);
	w = begin_write(a.x);
	for (unsigned i = 0; !got && i < 10000; i++) {
		snprintf(path, sizeof(path), "file-%06u", i);
		file_row(&r, i);
		got = index_put(w, path, &r);
		row_deinit(&r);
	}
	assert_int_equal(got, -ENOSPC);
	file_row(&r, 1);
	assert_int_equal(index_put(w, "x", &r), -ENOSPC); /* the transaction has failed */
	row_deinit(&r);
	assert_int_equal(index_commit(&w), -ENOSPC);
	w = begin_write(a.x); /* all is as before, and goes on */
	assert_int_equal(counts(w).live, 1);
	put_file(w, "after", 2);
	assert_int_equal(index_commit(&w), 0);
	temp_remove(&a);
}

struct reader {
	struct index *x;
	bool *stop;
	int bad;
};

static void *read_along(void *data)
{
	struct reader *me = data;

	while (!__atomic_load_n(me->stop, __ATOMIC_ACQUIRE)) {
		struct index_txn *t;
		struct index_cursor *c;
		struct index_counts n;
		uint64_t live = 0;
		int s;

		if (index_begin_read(me->x, &t) || index_counts(t, &n) ||
			index_cursor_open(t, &c)) {
			me->bad = 1;
			break;
		}
		for (s = index_cursor_seek(c, ""); !s; s = index_cursor_next(c))
			live++;
		me->bad |= s != INDEX_ABSENT || live != n.live || live % 10;
		index_cursor_close(c);
		index_abort(t);
	}
	return NULL;
}

/* A reader sees whole transactions only. */
static void test_readers_and_writer(void **state)
{
	struct temp_index a;
	struct reader readers[3];
	pthread_t threads[3];
	bool stop = false;
	char path[32];

	(void)state;
	temp_open(&a);
	for (int i = 0; i < 3; i++) {
		readers[i] = (struct reader){a.x, &stop, 0};
		assert_int_equal(pthread_create(&threads[i], NULL, read_along, &readers[i]), 0);
	}
	for (unsigned i = 0; i < 60; i++) {
		struct index_txn *w = begin_write(a.x);

		for (unsigned k = 0; k < 10; k++) {
			snprintf(path, sizeof(path), "p%u", i * 10 + k);
			put_file(w, path, i);
		}
		assert_int_equal(index_commit(&w), 0);
	}
	__atomic_store_n(&stop, true, __ATOMIC_RELEASE);
	for (int i = 0; i < 3; i++) {
		pthread_join(threads[i], NULL);
		assert_int_equal(readers[i].bad, 0);
	}
	temp_remove(&a);
}

/* A read transaction may move to another thread, and more may be open than threads. */
static void test_many_read_transactions(void **state)
{
	struct index_txn *t[100];
	struct temp_index a;

	(void)state;
	temp_open(&a);
	for (int i = 0; i < 100; i++)
		t[i] = begin_read(a.x);
	for (int i = 0; i < 100; i++)
		index_abort(t[i]);
	temp_remove(&a);
}

/* --- size and speed --- */

static void typical_path(char *ret, size_t cap, unsigned i)
{
	snprintf(ret, cap, "projects/component-%03u/src/module_%02u/source_file_%06u.c", i / 1000,
		i / 50 % 20, i);
}

#define SIZE_ROWS 6000
#define SIZE_BATCH 512 /* of a session's */

/* met: each row has an event of another copy, too. */
static void write_all(struct temp_index *a, bool descending, bool met)
{
	for (unsigned i = 0; i < SIZE_ROWS; i += SIZE_BATCH) {
		struct index_txn *w = begin_write(a->x);

		for (unsigned k = i; k < i + SIZE_BATCH && k < SIZE_ROWS; k++) {
			unsigned number = descending ? SIZE_ROWS - 1 - k : k;
			char path[128];
			struct row r;

			typical_path(path, sizeof(path), number);
			file_row(&r, number);
			if (met) {
				assert_int_equal(version_vector_raise(&r.record.vv, (struct version_dot){HELP_INC + 1, number + 1}, NULL), 0);
				assert_int_equal(version_dots_add(&r.record.dots, (struct version_dot){HELP_INC + 1, number + 1}), 0);
			}
			put_row(w, path, &r);
		}
		assert_int_equal(index_commit(&w), 0);
	}
}

/* What a row takes, in whole pages; all of them are there, in order. */
static double look_at_size(const char *what, struct temp_index *a, struct hash *ret_root)
{
	struct index_txn *t = begin_read(a->x);
	struct index_cursor *c;
	uint64_t pages = 0;
	unsigned n = 0;
	MDB_stat s;

	for (int i = 0; i < INDEX_TABLES; i++) {
		assert_int_equal(mdb_stat(t->txn, a->x->dbi[i], &s), 0);
		pages += s.ms_branch_pages + s.ms_leaf_pages + s.ms_overflow_pages;
	}
	assert_int_equal(index_cursor_open(t, &c), 0);
	for (int r = index_cursor_seek(c, ""); r == 0; r = index_cursor_next(c)) {
		char path[128], *at = NULL;

		typical_path(path, sizeof(path), n++);
		assert_int_equal(index_cursor_get(c, &at, NULL), 0);
		assert_string_equal(at, path);
		free(at);
	}
	assert_int_equal(n, SIZE_ROWS);
	index_cursor_close(c);
	assert_int_equal(tree_root(t, TREE_LIVE, ret_root), 0);
	index_abort(t);
	printf("  %s: %.0f bytes a row\n", what, (double)pages * 4096 / SIZE_ROWS);
	return (double)pages * 4096 / SIZE_ROWS;
}

/* Whichever way they were written: as by a first scan, from a peer, and when two copies met. */
static void test_size(void **state)
{
	struct hash up, down, met;
	struct temp_index a, b;
	double each;

	(void)state;
	temp_open(&a);
	temp_open(&b);
	write_all(&a, false, false);
	write_all(&b, true, false);
	each = look_at_size("ascending", &a, &up);
	assert_true(each <= 450);
	assert_true(look_at_size("descending", &b, &down) <= each * 1.2);
	assert_true(hash_equal(&up, &down));
	write_all(&a, true, true);
	assert_true(look_at_size("met", &a, &met) <= each * 1.25);
	write_all(&b, false, true);
	look_at_size("descending, met ascending", &b, &down);
	assert_true(hash_equal(&met, &down) && !hash_equal(&up, &met));
	temp_remove(&a);
	temp_remove(&b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_open),
		cmocka_unit_test(test_no_lock_file_on_the_disk),
		cmocka_unit_test(test_older_format),
		cmocka_unit_test(test_open_strange_files),
		cmocka_unit_test(test_needs_key),
		cmocka_unit_test(test_rows),
		cmocka_unit_test(test_bad_paths),
		cmocka_unit_test(test_restamp),
		cmocka_unit_test(test_changes),
		cmocka_unit_test(test_by_content_and_inode),
		cmocka_unit_test(test_cursor),
		cmocka_unit_test(test_cursor_with_writes),
		cmocka_unit_test(test_long_paths),
		cmocka_unit_test(test_any_live_below),
		cmocka_unit_test(test_any_leaf_above),
		cmocka_unit_test(test_count_live),
		cmocka_unit_test(test_nodes),
		cmocka_unit_test(test_meta),
		cmocka_unit_test(test_intents),
		cmocka_unit_test(test_lineage),
		cmocka_unit_test(test_damage),
		cmocka_unit_test(test_seal),
		cmocka_unit_test(test_rot),
		cmocka_unit_test(test_full),
		cmocka_unit_test(test_readers_and_writer),
		cmocka_unit_test(test_many_read_transactions),
		cmocka_unit_test(test_size),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
