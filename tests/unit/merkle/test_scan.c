/* tests/unit/merkle/test_scan.c — what a scan says of what is on disk, and, above all, what it does
 * not say is gone. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/error.h"
#include "merkle/scan_internal.h"
#include "tests/unit/where.h"

#define LATER (10 * CLOCK_NS_PER_S) /* so that a stamp is not racily clean */

static const char *const words[] = {
	[SCAN_NEW] = "new",
	[SCAN_CHANGED] = "changed",
	[SCAN_TOUCHED] = "touched",
	[SCAN_RESTAMP] = "restamp",
	[SCAN_AGED] = "aged",
	[SCAN_GONE] = "gone",
	[SCAN_IGNORED] = "ignored",
	[SCAN_UNIGNORED] = "unignored",
	[SCAN_LEFT_OUT] = "left-out",
	[SCAN_UNSETTLED] = "unsettled",
	[SCAN_ERROR] = "error",
};

struct seen {
	enum scan_what what;
	char *path;
	uint64_t seq;
	bool had_row;
	struct record state;
	struct stamp stamp;
	int64_t looked_ns;
	unsigned flags;
	int error;
	struct chunk_tree_node *nodes;
	size_t n_nodes;
};

struct fixture {
	char base[64];
	char root[96];
	struct store *store;
	struct ignore *ignore;
	struct seen *seen;
	size_t n, cap;
	char *text; /* of the last scan: "what path\n" … */
	struct scan_counts counts;
	uint64_t event;
	int64_t recorded_later_ns; /* added to when a row was recorded */
	/* called for each observation and directory of the walk; may be NULL */
	void (*hook)(struct fixture *f, const char *word, const char *path);
	int stop_after;
	atomic_bool cancel;
};

/* --- fixture --- */

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	(void)ftw;
	if (type == FTW_D || type == FTW_DNR)
		chmod(path, 0700);
	(void)st;
	(void)!remove(path);
	return 0;
}

static void remove_tree(const char *path)
{
	nftw(path, remove_one, 64, FTW_DEPTH | FTW_PHYS);
}

static int setup_in(void **state, const char *where)
{
	struct fixture *f = calloc(1, sizeof(*f));
	struct store_options create = {.create = true};

	if (!f)
		return -1;
	snprintf(f->base, sizeof(f->base), "%.32s/test_scan_XXXXXX", where);
	if (!mkdtemp(f->base))
		return -1;
	snprintf(f->root, sizeof(f->root), "%s/root", f->base);
	if (chmod(f->base, 0755) || mkdir(f->root, 0755))
		return -1;
	if (!geteuid() && chown(f->root, 1234, 1234)) /* for the tests as another user */
		return -1;
	f->recorded_later_ns = LATER;
	*state = f;
	return store_open(&f->store, f->root, &create) || ignore_new(&f->ignore);
}

static int setup(void **state)
{
	return setup_in(state, where_disk());
}

/* For the many: where they cost little, if there is such a place. */
static int setup_in_memory(void **state)
{
	return setup_in(state, where_memory());
}

static void forget_seen(struct fixture *f)
{
	for (size_t k = 0; k < f->n; k++) {
		free(f->seen[k].path);
		record_deinit(&f->seen[k].state);
		scan_nodes_free(f->seen[k].nodes, f->seen[k].n_nodes);
	}
	f->n = 0;
	free(f->text);
	f->text = NULL;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	if (!getuid() && seteuid(0)) /* a test that failed may have left us another user */
		return -1;
	forget_seen(f);
	free(f->seen);
	ignore_free(f->ignore);
	store_close(f->store);
	remove_tree(f->base);
	free(f);
	return 0;
}

/* --- disk --- */

static const char *at(const struct fixture *f, const char *name)
{
	static char ring[8][4096];
	static unsigned k;
	char *s = ring[k++ % 8];

	snprintf(s, 4096, "%s/%s", f->root, name);
	return s;
}

static void put_file(const struct fixture *f, const char *name, const char *text)
{
	int fd = open(at(f, name), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);

	assert_true(fd >= 0);
	assert_int_equal(write(fd, text, strlen(text)), (ssize_t)strlen(text));
	assert_int_equal(close(fd), 0);
}

/* Not all alike, so that it is several chunks. */
static void put_big_file(const struct fixture *f, const char *name, size_t n, unsigned seed)
{
	uint8_t *p = malloc(n);
	int fd = open(at(f, name), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
	uint64_t x = seed * UINT64_C(0x9e3779b97f4a7c15) + 1;

	assert_non_null(p);
	assert_true(fd >= 0);
	for (size_t k = 0; k < n; k++) {
		x ^= x << 13;
		x ^= x >> 7;
		x ^= x << 17;
		p[k] = (uint8_t)x;
	}
	assert_int_equal(write(fd, p, n), (ssize_t)n);
	assert_int_equal(close(fd), 0);
	free(p);
}

static void make_dir(const struct fixture *f, const char *name)
{
	assert_int_equal(mkdir(at(f, name), 0755), 0);
}

static void take_away(const struct fixture *f, const char *name)
{
	remove_tree(at(f, name));
	assert_int_equal(access(at(f, name), F_OK), -1);
}

static void move(const struct fixture *f, const char *from, const char *to)
{
	assert_int_equal(rename(at(f, from), at(f, to)), 0);
}

static void set_mtime(const struct fixture *f, const char *name, int64_t mtime_ns)
{
	struct timespec times[2] = {{.tv_nsec = UTIME_OMIT},
		{.tv_sec = mtime_ns / CLOCK_NS_PER_S, .tv_nsec = mtime_ns % CLOCK_NS_PER_S}};

	assert_int_equal(utimensat(AT_FDCWD, at(f, name), times, AT_SYMLINK_NOFOLLOW), 0);
}

static int64_t mtime_of(const struct fixture *f, const char *name)
{
	struct stat st;

	assert_int_equal(lstat(at(f, name), &st), 0);
	return st.st_mtim.tv_sec * CLOCK_NS_PER_S + st.st_mtim.tv_nsec;
}

/* --- scanning --- */

static int record_seen(const struct scan_observation *o, void *data)
{
	struct fixture *f = data;
	struct seen *s;

	assert_int_equal(array_reserve(&f->seen, &f->cap, f->n + 1, sizeof(*f->seen)), 0);
	s = &f->seen[f->n++];
	*s = (struct seen){.what = o->what,
		.path = strdup(o->path),
		.seq = o->seq,
		.had_row = o->had_row,
		.stamp = o->stamp,
		.looked_ns = o->looked_ns,
		.flags = o->flags,
		.error = o->error};
	assert_non_null(s->path);
	assert_int_equal(record_copy(&s->state, &o->state), 0);
	s->nodes = calloc(o->n_nodes + 1, sizeof(*s->nodes));
	assert_non_null(s->nodes);
	for (; s->n_nodes < o->n_nodes; s->n_nodes++) {
		s->nodes[s->n_nodes] = o->nodes[s->n_nodes];
		s->nodes[s->n_nodes].payload = malloc(o->nodes[s->n_nodes].n);
		assert_non_null(s->nodes[s->n_nodes].payload);
		memcpy(s->nodes[s->n_nodes].payload, o->nodes[s->n_nodes].payload,
			o->nodes[s->n_nodes].n);
	}
	if (f->hook)
		f->hook(f, words[o->what], o->path);
	return f->stop_after && f->n == (size_t)f->stop_after ? 77 : 0;
}

static void enter_directory(int dirfd, const char *path, void *data)
{
	struct fixture *f = data;

	assert_true(dirfd >= 0);
	if (f->hook)
		f->hook(f, "enter", path);
}

static unsigned threads; /* of each scan's pool; 0: none */

static int scan_with(struct fixture *f, struct scan_options o)
{
	struct scan_sink sink = {.observe = record_seen, .directory = enter_directory, .data = f};
	struct buf text = BUF_INIT;
	int r;

	forget_seen(f);
	o.store = f->store;
	o.ignore = f->ignore;
	o.subtree = o.subtree ? o.subtree : "";
	if (threads)
		assert_int_equal(pool_new(&o.pool, threads), 0);
	r = scan_run(&o, &sink, &f->counts);
	pool_free(o.pool);
	for (size_t k = 0; k < f->n; k++) {
		put_bytes(&text, words[f->seen[k].what], strlen(words[f->seen[k].what]));
		put_u8(&text, ' ');
		put_bytes(&text, f->seen[k].path, strlen(f->seen[k].path));
		put_u8(&text, '\n');
	}
	put_u8(&text, 0);
	assert_int_equal(buf_error(&text), 0);
	f->text = (char *)text.data;
	return r;
}

static void scan(struct fixture *f)
{
	assert_int_equal(scan_with(f, (struct scan_options){0}), 0);
}

#define assert_seen(f, expected) assert_string_equal((f)->text, expected)

static void scan_subtree(struct fixture *f, const char *subtree)
{
	assert_int_equal(scan_with(f, (struct scan_options){.subtree = subtree}), 0);
}

static const struct seen *find_seen(const struct fixture *f, const char *path)
{
	for (size_t k = 0; k < f->n; k++)
		if (!strcmp(f->seen[k].path, path))
			return &f->seen[k];
	fail_msg("%s was not seen", path);
	return NULL;
}

/* --- the index --- */

static void give_versions(struct fixture *f, struct record *r)
{
	struct version_dot dot = {7, ++f->event};

	version_dots_deinit(&r->dots);
	version_dots_deinit(&r->adots);
	version_dots_deinit(&r->mdots);
	assert_int_equal(version_vector_raise(&r->vv, dot, NULL), 0);
	assert_int_equal(version_dots_add(&r->dots, dot), 0);
	if (!r->live)
		return;
	assert_int_equal(version_dots_add(&r->adots, dot), 0);
	if (r->kind != RECORD_DIRECTORY)
		assert_int_equal(version_dots_add(&r->mdots, dot), 0);
}

static void take_one(struct fixture *f, struct index_txn *w, const struct seen *s)
{
	struct row row = {.place = ROW_ON_DISK,
		.stamp = s->stamp,
		.recorded_ns = s->looked_ns + f->recorded_later_ns};
	struct row old = {0};

	switch (s->what) {
	case SCAN_NEW:
	case SCAN_CHANGED:
		for (size_t k = 0; k < s->n_nodes; k++)
			assert_int_equal(index_node_put(w, &s->nodes[k].hash, s->nodes[k].level,
						 s->nodes[k].payload, s->nodes[k].n),
				0);
		/* fall through */
	case SCAN_TOUCHED:
	case SCAN_RESTAMP:
		assert_int_equal(record_copy(&row.record, &s->state), 0);
		give_versions(f, &row.record);
		assert_int_equal(index_put(w, s->path, &row), 0);
		break;
	case SCAN_IGNORED:
		assert_int_equal(index_get(w, s->path, &old), 0);
		old.place = ROW_IGNORED;
		assert_int_equal(index_restamp(w, s->path, &old), 0);
		break;
	case SCAN_AGED:
		assert_int_equal(index_get(w, s->path, &old), 0);
		old.stamp = row.stamp;
		old.recorded_ns = s->looked_ns;
		assert_int_equal(index_restamp(w, s->path, &old), 0);
		break;
	case SCAN_GONE:
	case SCAN_UNIGNORED:
		assert_int_equal(index_drop(w, s->path), 0);
		break;
	case SCAN_LEFT_OUT:
	case SCAN_UNSETTLED:
	case SCAN_ERROR:
		break;
	}
	row_deinit(&row);
	row_deinit(&old);
}

/* Make the index say what the last scan said. */
static void take(struct fixture *f)
{
	struct index_txn *w;

	assert_int_equal(index_begin_write(store_index(f->store), &w), 0);
	for (size_t k = 0; k < f->n; k++)
		take_one(f, w, &f->seen[k]);
	assert_int_equal(index_commit(&w), 0);
}

static void scan_and_take(struct fixture *f)
{
	scan(f);
	take(f);
}

static bool get_row(struct fixture *f, const char *path, struct row *ret)
{
	struct index_txn *t;
	int r;

	assert_int_equal(index_begin_read(store_index(f->store), &t), 0);
	r = index_get(t, path, ret);
	index_abort(t);
	assert_true(r == 0 || r == INDEX_ABSENT);
	return r == 0;
}

static void set_row(struct fixture *f, const char *path, struct row *row)
{
	struct index_txn *w;

	assert_int_equal(index_begin_write(store_index(f->store), &w), 0);
	assert_int_equal(index_put(w, path, row), 0);
	assert_int_equal(index_commit(&w), 0);
	row_deinit(row);
}

/* A row of no object here. */
static void add_row(struct fixture *f, const char *path, bool live, uint8_t kind, uint8_t place)
{
	struct row row = {.place = place, .since_ns = live ? 0 : 1};

	if (place != ROW_IMPLIED) {
		row.record.live = live;
		row.record.kind = live ? kind : 0;
		if (live && kind == RECORD_FILE) {
			row.record.content.chunk_bits = CHUNK_BITS_MIN;
			hash_bytes(store_algorithm(f->store), "", 0, &row.record.content.root);
		}
		give_versions(f, &row.record);
	}
	set_row(f, path, &row);
}

static void edit_row(struct fixture *f, const char *path, void (*edit)(struct row *row))
{
	struct row row = {0};

	assert_true(get_row(f, path, &row));
	edit(&row);
	set_row(f, path, &row);
}

/* --- what is new --- */

static void test_empty_root(void **state)
{
	struct fixture *f = *state;

	scan(f);
	assert_seen(f, "");
}

static void test_new_objects_in_path_order(void **state)
{
	struct fixture *f = *state;

	put_file(f, "a.b", "hello");
	make_dir(f, "a");
	make_dir(f, "a/empty");
	put_file(f, "a/x", "");
	assert_int_equal(symlink("/nowhere/at all", at(f, "link")), 0);
	put_big_file(f, "z", 300000, 1);
	assert_int_equal(chmod(at(f, "a.b"), 04751), 0);
	scan(f);
	assert_seen(f, "new a\nnew a/empty\nnew a/x\nnew a.b\nnew link\nnew z\n");

	const struct seen *s = find_seen(f, "a.b");
	struct hash hash;
	hash_bytes(HASH_SHA256, "hello", 5, &hash);
	assert_true(s->state.live);
	assert_false(s->had_row);
	assert_int_equal(s->seq, 0);
	assert_int_equal(s->state.kind, RECORD_FILE);
	assert_int_equal(s->state.mode, 04751);
	assert_int_equal(s->state.mtime_ns, mtime_of(f, "a.b"));
	assert_int_equal(s->state.content.size, 5);
	assert_int_equal(s->state.content.height, 0);
	assert_true(hash_equal(&s->state.content.root, &hash));
	assert_int_equal(s->n_nodes, 0);
	assert_int_equal(s->stamp.size, 5);
	assert_true(s->looked_ns > clock_wall_ns() - 60 * CLOCK_NS_PER_S &&
		    s->looked_ns <= clock_wall_ns());

	s = find_seen(f, "link");
	assert_int_equal(s->state.kind, RECORD_SYMLINK);
	assert_string_equal(s->state.target, "/nowhere/at all");
	assert_int_equal(s->state.content.size, 15);
	assert_int_equal(s->state.mode, 0777);
	assert_int_equal(find_seen(f, "a")->state.kind, RECORD_DIRECTORY);
	assert_int_equal(find_seen(f, "a")->state.mode, 0755);
	s = find_seen(f, "z");
	assert_true(s->state.content.height > 0 && s->n_nodes > 0);
	assert_true(hash_equal(&s->nodes[s->n_nodes - 1].hash, &s->state.content.root));
	assert_int_equal(f->counts.files, 3);
	assert_int_equal(f->counts.directories, 2);
	assert_int_equal(f->counts.symlinks, 1);
	assert_int_equal(f->counts.bytes_hashed, 300005);
}

static void test_clean_tree_is_not_read(void **state)
{
	struct fixture *f = *state;

	make_dir(f, "d");
	put_file(f, "d/f", "x");
	put_big_file(f, "d/big", 200000, 2);
	assert_int_equal(symlink("f", at(f, "d/l")), 0);
	scan_and_take(f);
	for (int k = 0; k < 2; k++) {
		scan(f);
		assert_seen(f, "");
		assert_int_equal(f->counts.bytes_hashed, 0);
		assert_int_equal(f->counts.files, 2);
	}
	assert_int_equal(scan_with(f, (struct scan_options){.rehash_before_ns = INT64_MAX}), 0);
	assert_seen(f, "");
	assert_int_equal(f->counts.bytes_hashed, 200001);
}

#define LATER_NS (10 * CLOCK_NS_PER_S) /* a record of that age is not too young to be trusted */

static void forge_recorded_later(struct row *row)
{
	row->recorded_ns += LATER_NS;
}

/* The first store through a mapping sets the times, later ones do not, until the page was written back: who knows that somebody
 * was at it asks for a look at the content. */
static void test_stored_through_a_mapping(void **state)
{
	const struct timespec old[] = {{1600000000, 0}, {1600000000, 0}};
	struct fixture *f = *state;
	char *stored;
	int fd;

	put_file(f, "m", "hello");
	fd = open(at(f, "m"), O_RDWR);
	assert_true(fd >= 0);
	stored = mmap(NULL, 5, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	assert_true(stored != MAP_FAILED);
	stored[0] = 'j';
	assert_int_equal(futimens(fd, old), 0); /* for some time nobody was at it */
	scan_and_take(f);
	edit_row(f, "m", forge_recorded_later);
	stored[0] = 'c';
	assert_int_equal(munmap(stored, 5), 0);
	assert_int_equal(close(fd), 0);
	scan(f);
	assert_seen(f, "");
	assert_int_equal(scan_with(f, (struct scan_options){.rehash_before_ns = clock_wall_ns() + 2 * LATER_NS}), 0);
	assert_seen(f, "changed m\n");
	assert_int_equal(f->counts.bytes_hashed, 5);
	/* recorded at a time to come: before the clock was set back, perhaps before that close */
	assert_int_equal(scan_with(f, (struct scan_options){.rehash_before_ns = clock_wall_ns()}), 0);
	assert_seen(f, "changed m\n");
}

/* What was hashed since is not hashed again. */
static void test_recorded_since(void **state)
{
	const struct timespec young = {2, 100 * CLOCK_NS_PER_MS}; /* its stamp may be trusted after that */
	struct fixture *f = *state;
	int64_t before;

	put_file(f, "m", "hello");
	assert_int_equal(nanosleep(&young, NULL), 0);
	f->recorded_later_ns = 0;
	before = clock_wall_ns();
	scan_and_take(f);
	assert_int_equal(scan_with(f, (struct scan_options){.rehash_before_ns = before}), 0);
	assert_seen(f, "");
	assert_int_equal(f->counts.bytes_hashed, 0);
	assert_int_equal(scan_with(f, (struct scan_options){.rehash_before_ns = clock_wall_ns()}), 0);
	assert_int_equal(f->counts.bytes_hashed, 5);
}

static void test_new_over_rows_that_are_not_on_disk(void **state)
{
	struct fixture *f = *state;

	add_row(f, "buried", false, 0, ROW_NOT_HERE);
	add_row(f, "waits", true, RECORD_FILE, ROW_NOT_HERE);
	add_row(f, "strange", true, 9, ROW_UNSUPPORTED);
	add_row(f, "was-ignored", true, RECORD_FILE, ROW_IGNORED);
	add_row(f, "implied", false, 0, ROW_IMPLIED);
	put_file(f, "buried", "1");
	put_file(f, "waits", "2");
	put_file(f, "strange", "3");
	put_file(f, "was-ignored", "4");
	put_file(f, "implied", "5");
	scan(f);
	assert_seen(f, "new buried\nnew implied\nnew strange\nnew waits\nnew was-ignored\n");
	for (size_t k = 0; k < f->n; k++) {
		assert_true(f->seen[k].had_row);
		assert_true((f->seen[k].seq != 0) == (strcmp(f->seen[k].path, "implied") != 0));
	}
}

static void test_implied_directory_is_nothing_new(void **state)
{
	struct fixture *f = *state;
	struct row row = {0};
	struct stat st;

	make_dir(f, "implied");
	put_file(f, "implied/x", "");
	add_row(f, "implied", false, 0, ROW_IMPLIED);
	assert_true(get_row(f, "implied", &row));
	assert_int_equal(lstat(at(f, "implied"), &st), 0);
	row.stamp = (struct stamp){.ino = st.st_ino, .mode = st.st_mode & 07777, .uid = st.st_uid, .gid = st.st_gid};
	set_row(f, "implied", &row);
	scan(f);
	assert_seen(f, "new implied/x\n");
	assert_int_equal(chmod(at(f, "implied"), 0500), 0);
	scan(f);
	assert_seen(f, "restamp implied\nnew implied/x\n");
	take_away(f, "implied");
	scan(f);
	assert_seen(f, "gone implied\n");
	assert_int_equal(f->seen[0].seq, 0);
}

/* --- what differs --- */

static void test_changed(void **state)
{
	struct fixture *f = *state;
	struct row row = {0};

	put_file(f, "f", "one");
	put_file(f, "g", "one");
	assert_int_equal(symlink("one", at(f, "l")), 0);
	scan_and_take(f);
	assert_true(get_row(f, "f", &row));
	put_file(f, "f", "two");
	put_file(f, "g", "longer");
	assert_int_equal(unlink(at(f, "l")), 0);
	assert_int_equal(symlink("two", at(f, "l")), 0);
	scan(f);
	assert_seen(f, "changed f\nchanged g\nchanged l\n");
	assert_int_equal(f->seen[0].seq, row.seq);
	assert_true(f->seen[0].had_row);
	assert_true(f->seen[0].flags & SCAN_MTIME);
	assert_string_equal(f->seen[2].state.target, "two");
	take(f);
	scan(f);
	assert_seen(f, "");
	row_deinit(&row);
}

static void test_touched(void **state)
{
	struct fixture *f = *state;

	put_file(f, "f", "one");
	put_file(f, "g", "one");
	put_big_file(f, "h", 100000, 3);
	make_dir(f, "d");
	assert_int_equal(symlink("x", at(f, "l")), 0);
	scan_and_take(f);
	assert_int_equal(chmod(at(f, "d"), 0700), 0);
	assert_int_equal(chmod(at(f, "f"), 0600), 0);
	set_mtime(f, "g", 1000 * CLOCK_NS_PER_S + 5);
	assert_int_equal(chmod(at(f, "h"), 0600), 0);
	set_mtime(f, "l", 7);
	scan(f);
	assert_seen(f, "touched d\ntouched f\ntouched g\ntouched h\ntouched l\n");
	assert_int_equal(find_seen(f, "d")->flags, SCAN_MODE);
	assert_int_equal(find_seen(f, "d")->state.mode, 0700);
	assert_int_equal(find_seen(f, "f")->flags, SCAN_MODE);
	assert_int_equal(find_seen(f, "g")->flags, SCAN_MTIME);
	assert_int_equal(find_seen(f, "g")->state.mtime_ns, 1000 * CLOCK_NS_PER_S + 5);
	assert_int_equal(find_seen(f, "l")->flags, SCAN_MTIME);
	assert_int_equal(f->counts.bytes_hashed, 3 + 3 + 100000); /* a chmod may hide an edit: see the next */
	take(f);
	scan(f);
	assert_seen(f, "");
	if (geteuid())
		skip();
	assert_int_equal(lchown(at(f, "d"), 5, 6), 0);
	assert_int_equal(lchown(at(f, "f"), 5, 6), 0);
	assert_int_equal(lchown(at(f, "l"), 5, 6), 0);
	scan(f);
	assert_seen(f, "touched d\ntouched f\ntouched l\n");
	assert_int_equal(f->seen[0].flags, SCAN_OWNER);
	assert_int_equal(f->seen[1].state.uid, 5);
	assert_int_equal(f->seen[2].flags, SCAN_OWNER);
}

/* Size and mtime are as before, and a chmod or a rename would explain the ctime. */
static void test_edits_that_hide(void **state)
{
	struct fixture *f = *state;

	put_file(f, "f", "one");
	put_file(f, "g", "one");
	set_mtime(f, "f", 1000);
	set_mtime(f, "g", 1000);
	scan_and_take(f);
	put_file(f, "f", "two");
	set_mtime(f, "f", 1000);
	assert_int_equal(chmod(at(f, "f"), 0600), 0);
	put_file(f, "g", "two");
	set_mtime(f, "g", 1000);
	move(f, "g", "h");
	scan(f);
	assert_seen(f, "changed f\nnew h\ngone g\n");
	assert_true(content_equal(&find_seen(f, "f")->state.content, &find_seen(f, "h")->state.content));
}

static void test_times_of_any_century(void **state)
{
	struct fixture *f = *state;

	put_file(f, "past", "x");
	put_file(f, "future", "x");
	scan_and_take(f);
	set_mtime(f, "past", -2000000000 * CLOCK_NS_PER_S);
	set_mtime(f, "future", 9000000000 * CLOCK_NS_PER_S);
	scan(f);
	assert_seen(f, "touched future\ntouched past\n");
	take(f);
	scan(f);
	assert_seen(f, "");
	assert_int_equal(f->counts.bytes_hashed, 0); /* a far mtime is not a recent one */
}

static void test_restamp_of_an_equal_copy(void **state)
{
	struct fixture *f = *state;
	int64_t mtime;

	put_file(f, "f", "same");
	make_dir(f, "d");
	scan_and_take(f);
	mtime = mtime_of(f, "f");
	put_file(f, "copy", "same");
	set_mtime(f, "copy", mtime);
	move(f, "copy", "f");
	make_dir(f, "e");
	move(f, "e", "d");
	scan(f);
	assert_seen(f, "restamp d\nrestamp f\n");
	take(f);
	scan(f);
	assert_seen(f, "");
}

static void set_exact_times(struct fixture *f, bool exact)
{
	((struct file_abilities *)store_abilities(f->store))->exact_times = exact;
}

static void test_racily_clean_is_read_again(void **state)
{
	struct fixture *f = *state;

	set_exact_times(f, false);
	put_file(f, "f", "same");
	f->recorded_later_ns = 0; /* recorded right after it was written */
	scan_and_take(f);
	scan(f);
	assert_seen(f, "restamp f\n");
	assert_int_equal(f->counts.bytes_hashed, 4);
	f->recorded_later_ns = LATER;
	take(f);
	scan(f);
	assert_seen(f, "");
}

static void forge_content(struct row *row)
{
	memset(row->record.content.root.bytes, 0x55, HASH_BYTES);
}

static void forge_content_racy(struct row *row)
{
	forge_content(row);
	row->recorded_ns = row->stamp.ctime_ns + CLOCK_NS_PER_S;
}

/* An edit that the stamp does not show at all: size, inode and every time the same. */
static void test_edit_within_one_tick(void **state)
{
	struct fixture *f = *state;

	set_exact_times(f, false);
	put_file(f, "f", "same");
	scan_and_take(f);
	edit_row(f, "f", forge_content_racy);
	scan(f);
	assert_seen(f, "changed f\n");
}

/* As another process; or after a reboot, say. */
static void open_again(struct fixture *f, bool mounted_anew)
{
	struct buf b = BUF_INIT;
	struct index_txn *w;

	if (mounted_anew) {
		put_u8(&b, 1);
		put_bytes(&b, (const uint8_t[24]){"elsewhere"}, 24);
		put_u32(&b, store_mount(f->store));
		assert_int_equal(index_begin_write(store_index(f->store), &w), 0);
		assert_int_equal(index_meta_put(w, INDEX_META_MOUNT, b.data, b.len), 0);
		assert_int_equal(index_commit(&w), 0);
		buf_deinit(&b);
	}
	store_close(f->store);
	assert_int_equal(store_open(&f->store, f->root, NULL), 0);
}

/* Where each change has a time of its own once somebody looked, nothing is read twice, and no edit hides, however soon it comes. */
static void test_exact_is_not_read_again(void **state)
{
	struct fixture *f = *state;
	const int64_t mtime = clock_wall_ns();

	if (!store_abilities(f->store)->exact_times || !store_abilities(f->store)->lease)
		skip();
	f->recorded_later_ns = 0;
	for (int i = 0; i < 300; i++) {
		put_file(f, "f", i % 2 ? "odd" : "eve");
		set_mtime(f, "f", mtime);
		scan(f);
		assert_seen(f, i ? "changed f\n" : "new f\n");
		take(f);
		scan(f);
		assert_seen(f, "");
		assert_int_equal(f->counts.bytes_hashed, 0);
	}
	assert_int_equal(scan_with(f, (struct scan_options){.rehash_before_ns = INT64_MAX}), 0);
	assert_int_equal(f->counts.bytes_hashed, 3);

	/* by the next process as well, but not in the next mount: power may have been lost, and new bytes be there under old times */
	edit_row(f, "f", forge_content);
	scan(f);
	assert_seen(f, "");
	open_again(f, false);
	scan(f);
	assert_seen(f, "");
	open_again(f, true);
	scan(f);
	assert_seen(f, "changed f\n");
}

/* Two seconds later any scan can say so, without reading, and that it was exact is not needed any more. */
static void test_exact_grows_old(void **state)
{
	const struct timespec young = {2, 100 * CLOCK_NS_PER_MS};
	struct fixture *f = *state;
	struct row before, row;

	if (!store_abilities(f->store)->exact_times || !store_abilities(f->store)->lease)
		skip();
	f->recorded_later_ns = 0;
	put_file(f, "f", "same");
	put_file(f, "g", "same");
	put_file(f, "h", "other");
	assert_int_equal(symlink("f", at(f, "s")), 0);
	scan_and_take(f);
	scan(f);
	assert_seen(f, "restamp s\n"); /* symlinks have no lease */
	take(f);
	assert_true(get_row(f, "f", &before));
	assert_true(before.stamp.exact);
	assert_int_equal(nanosleep(&young, NULL), 0);
	put_file(f, "g", "edit");
	edit_row(f, "h", forge_content);
	scan(f);
	assert_seen(f, "aged f\nchanged g\naged h\nrestamp s\n");
	assert_int_equal(f->counts.bytes_hashed, 4);
	take(f);
	assert_true(get_row(f, "f", &row));
	assert_true(stamp_equal(&row.stamp, &before.stamp) && row.stamp.generation == before.stamp.generation && !row.stamp.exact);
	assert_true(row.recorded_ns > before.recorded_ns + 2 * CLOCK_NS_PER_S);
	row_deinit(&row);
	row_deinit(&before);
	scan(f);
	assert_seen(f, "");
	open_again(f, true);
	scan(f);
	assert_seen(f, "restamp g\n");
}

/* Not while somebody has it open for writing: what he stores through a mapping moves times once only. */
static void test_not_exact_while_open(void **state)
{
	struct fixture *f = *state;
	char *mapped;
	int fd;

	if (!store_abilities(f->store)->lease)
		skip();
	f->recorded_later_ns = 0;
	put_file(f, "f", "as it was");
	set_mtime(f, "f", 1000 * CLOCK_NS_PER_S);
	fd = open(at(f, "f"), O_RDWR | O_CLOEXEC);
	assert_true(fd >= 0);
	mapped = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	assert_true(mapped != MAP_FAILED);
	close(fd);
	mapped[0] = 'A';
	set_mtime(f, "f", 1000 * CLOCK_NS_PER_S);
	scan_and_take(f);
	assert_seen(f, "new f\n");
	mapped[1] = 'S';
	scan(f);
	assert_seen(f, "changed f\n");
	munmap(mapped, 4096);
}

static void test_rehash_trusts_no_stamp(void **state)
{
	struct fixture *f = *state;

	put_file(f, "f", "same");
	scan_and_take(f);
	edit_row(f, "f", forge_content);
	scan(f);
	assert_seen(f, "");
	assert_int_equal(scan_with(f, (struct scan_options){.rehash_before_ns = INT64_MAX}), 0);
	assert_seen(f, "changed f\n");
}

static void test_edit_with_size_and_mtime_put_back(void **state)
{
	struct fixture *f = *state;
	int64_t mtime;

	put_file(f, "f", "one");
	scan_and_take(f);
	mtime = mtime_of(f, "f");
	put_file(f, "f", "two");
	set_mtime(f, "f", mtime);
	scan(f);
	assert_seen(f, "changed f\n");
	assert_int_equal(f->seen[0].flags, 0);
}

static void test_kinds_change(void **state)
{
	struct fixture *f = *state;

	put_file(f, "file-dir", "x");
	put_file(f, "file-link", "x");
	make_dir(f, "dir-file");
	put_file(f, "dir-file/a", "1");
	make_dir(f, "dir-file/b");
	put_file(f, "dir-file/b/c", "1");
	scan_and_take(f);
	take_away(f, "file-dir");
	make_dir(f, "file-dir");
	put_file(f, "file-dir/in", "x");
	take_away(f, "file-link");
	assert_int_equal(symlink("x", at(f, "file-link")), 0);
	take_away(f, "dir-file");
	put_file(f, "dir-file", "x");
	scan(f);
	assert_seen(f, "changed dir-file\nchanged file-dir\nnew file-dir/in\nchanged file-link\n"
		       "gone dir-file/a\ngone dir-file/b\ngone dir-file/b/c\n");
	take(f);
	scan(f);
	assert_seen(f, "");
}

/* --- what is gone --- */

static void test_gone(void **state)
{
	struct fixture *f = *state;
	struct row row = {0};

	put_file(f, "a", "x");
	make_dir(f, "d");
	make_dir(f, "d/e");
	put_file(f, "d/e/f", "x");
	put_file(f, "d.x", "x");
	put_file(f, "z", "x");
	scan_and_take(f);
	assert_true(get_row(f, "a", &row));
	take_away(f, "a");
	take_away(f, "d");
	put_file(f, "b", "x");
	scan(f);
	assert_seen(f, "new b\ngone a\ngone d\ngone d/e\ngone d/e/f\n");
	assert_int_equal(find_seen(f, "a")->seq, row.seq);
	take(f);
	scan(f);
	assert_seen(f, "");
	row_deinit(&row);
}

static void test_what_was_not_on_disk_is_not_gone(void **state)
{
	struct fixture *f = *state;

	add_row(f, "tombstone", false, 0, ROW_NOT_HERE);
	add_row(f, "waits", true, RECORD_FILE, ROW_NOT_HERE);
	add_row(f, "strange", true, 9, ROW_UNSUPPORTED);
	add_row(f, "collides", true, RECORD_FILE, ROW_COLLIDES);
	add_row(f, "dir", true, RECORD_DIRECTORY, ROW_NOT_HERE);
	add_row(f, "dir/waits", true, RECORD_FILE, ROW_NOT_HERE);
	scan(f);
	assert_seen(f, "");
}

/* Rows below a name that has no row itself. */
static void test_gone_without_the_parents_row(void **state)
{
	struct fixture *f = *state;

	add_row(f, "a/b/c", true, RECORD_FILE, ROW_ON_DISK);
	add_row(f, "a/b/d", false, 0, ROW_NOT_HERE);
	scan(f);
	assert_seen(f, "gone a/b/c\n");
	make_dir(f, "a");
	scan(f);
	assert_seen(f, "new a\ngone a/b/c\n");
}

/* --- what is ignored --- */

static void test_ignored(void **state)
{
	struct fixture *f = *state;

	put_file(f, "keep", "x");
	put_file(f, "skip.o", "x");
	make_dir(f, "build");
	put_file(f, "build/a", "x");
	make_dir(f, "src");
	put_file(f, "src/x.tmp", "x");
	put_file(f, "src/.syncignore", "*.tmp\n");
	put_file(f, ".syncignore", "*.o\nbuild/\n");
	scan(f);
	assert_seen(f, "new .syncignore\nnew keep\nnew src\nnew src/.syncignore\n");
	take(f);
	/* not ignored any more */
	put_file(f, ".syncignore", "");
	scan(f);
	assert_seen(f, "changed .syncignore\nnew build\nnew build/a\nnew skip.o\n");
	take(f);
	/* newly ignored: untracked, never gone, here or not */
	take_away(f, "skip.o");
	put_file(f, ".syncignore", "*.o\nbuild\n");
	scan(f);
	assert_seen(f, "changed .syncignore\nignored build\nignored build/a\nignored skip.o\n");
	take(f);
	take_away(f, "build/a");
	scan(f);
	assert_seen(f, "");
	/* and back: what is not on disk is unignored, what is is new */
	put_file(f, ".syncignore", "");
	scan(f);
	assert_seen(f, "changed .syncignore\nnew build\nunignored build/a\nunignored skip.o\n");
	assert_true(find_seen(f, "build")->had_row);
}

static void test_ignored_below_what_is_gone(void **state)
{
	struct fixture *f = *state;

	make_dir(f, "d");
	put_file(f, "d/a", "x");
	make_dir(f, "d/cache");
	put_file(f, "d/cache/b", "x");
	scan_and_take(f);
	take_away(f, "d");
	put_file(f, ".syncignore", "cache/\n");
	scan(f);
	assert_seen(f, "new .syncignore\nignored d/cache\nignored d/cache/b\ngone d\ngone d/a\n");
}

static void test_unreadable_rules_stop_at_their_directory(void **state)
{
	struct fixture *f = *state;

	make_dir(f, "d");
	put_file(f, "d/secret", "x");
	put_file(f, "d/.syncignore", "secret\n");
	assert_int_equal(truncate(at(f, "d/.syncignore"), IGNORE_FILE_BYTES_MAX + 1), 0);
	put_file(f, "e", "x");
	scan(f);
	assert_seen(f, "error d\nnew e\n");
	assert_int_equal(f->seen[0].error, -EFBIG);
}

/* --- what is left out --- */

static void test_special_files(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(mkfifo(at(f, "fifo"), 0644), 0);
	scan(f);
	assert_seen(f, "left-out fifo\n");
	assert_int_equal(f->seen[0].error, FILE_UNSUPPORTED);
	assert_int_equal(f->counts.left_out, 1);
	/* never absent, although a row says otherwise */
	assert_int_equal(unlink(at(f, "fifo")), 0);
	put_file(f, "fifo", "x");
	make_dir(f, "dir");
	put_file(f, "dir/x", "x");
	scan_and_take(f);
	take_away(f, "fifo");
	take_away(f, "dir");
	assert_int_equal(mkfifo(at(f, "fifo"), 0644), 0);
	assert_int_equal(mkfifo(at(f, "dir"), 0644), 0);
	scan(f);
	assert_seen(f, "left-out dir\nleft-out fifo\n");
}

static void test_invalid_names(void **state)
{
	struct fixture *f = *state;

	make_dir(f, "d");
	make_dir(f, "d/.Syncd");
	put_file(f, "d/.Syncd/x", "x");
	make_dir(f, "d/.syncd");
	scan(f);
	assert_seen(f, "new d\nleft-out d/.Syncd\nleft-out d/.syncd\n");
	assert_int_equal(f->seen[1].error, -EINVAL);
}

static void test_folder_inside(void **state)
{
	struct fixture *f = *state;
	struct store_options create = {.create = true};
	struct store *inner = NULL;

	make_dir(f, "d");
	make_dir(f, "d/in");
	put_file(f, "d/in/x", "x");
	scan_and_take(f);
	assert_int_equal(mkdir(at(f, "../other"), 0755), 0);
	assert_int_equal(store_open(&inner, at(f, "../other"), &create), 0);
	store_close(inner);
	take_away(f, "d/in/x");
	move(f, "../other/.syncd", "d/in/.syncd");
	scan(f);
	assert_seen(f, "left-out d/in\n"); /* and x is not gone */
	assert_int_equal(f->seen[0].error, -ENOTUNIQ);
	scan_subtree(f, "d/in/x");
	assert_seen(f, "left-out d/in/x\n");
}

static void test_mount(void **state)
{
	struct fixture *f = *state;

	make_dir(f, "d");
	put_file(f, "d/x", "x");
	scan_and_take(f);
	if (geteuid() || mount("none", at(f, "d"), "tmpfs", 0, "size=64k"))
		skip();
	put_file(f, "d/foreign", "x");
	scan(f);
	umount(at(f, "d"));
	assert_seen(f, "left-out d\n");
	assert_int_equal(f->seen[0].error, FILE_OUTSIDE);
}

static void test_hard_links_are_counted(void **state)
{
	struct fixture *f = *state;

	put_file(f, "a", "x");
	assert_int_equal(link(at(f, "a"), at(f, "b")), 0);
	scan(f);
	assert_seen(f, "new a\nnew b\n");
	assert_int_equal(f->counts.hard_links, 2);
}

/* --- what could not be seen --- */

/* As a user for whom modes count. false: we can't be one. */
static bool become_user(void)
{
	return geteuid() || seteuid(1234) == 0;
}

static void become_root(void)
{
	if (!getuid())
		assert_int_equal(seteuid(0), 0);
}

static void test_unreadable(void **state)
{
	struct fixture *f = *state;

	assert_true(become_user());
	make_dir(f, "d");
	make_dir(f, "d/closed");
	put_file(f, "d/closed/x", "x");
	make_dir(f, "d/closed/y");
	put_file(f, "d/f", "x");
	put_file(f, "d/gone", "x");
	put_file(f, "new-closed", "x");
	assert_int_equal(chmod(at(f, "new-closed"), 0), 0);
	scan(f);
	assert_seen(f, "new d\nnew d/closed\nnew d/closed/x\nnew d/closed/y\nnew d/f\nnew "
		       "d/gone\nerror new-closed\n");
	assert_int_equal(f->seen[6].error, FILE_DENIED);
	take(f);
	put_file(f, "d/f", "other");
	assert_int_equal(chmod(at(f, "d/f"), 0), 0);
	assert_int_equal(chmod(at(f, "d/closed"), 0), 0);
	assert_int_equal(unlink(at(f, "d/gone")), 0);
	scan(f);
	/* x and y are not gone; what was listed to its end is still proven */
	assert_seen(f, "error d/closed\nerror d/f\nerror new-closed\ngone d/gone\n");
	assert_int_equal(f->counts.errors, 3);
	/* searchable, but not readable, and the other way round */
	assert_int_equal(chmod(at(f, "d/closed"), 0111), 0);
	scan(f);
	assert_seen(f, "error d/closed\nerror d/f\nerror new-closed\ngone d/gone\n");
	assert_int_equal(chmod(at(f, "d/closed"), 0444), 0);
	scan(f);
	assert_null(strstr(f->text, "gone d/closed"));
	assert_non_null(strstr(f->text, "error d/closed"));
	/* below one that cannot be searched */
	assert_int_equal(chmod(at(f, "d/closed"), 0), 0);
	scan_subtree(f, "d/closed/y/deep");
	assert_seen(f, "error d/closed/y/deep\n");
	become_root();
}

static void test_unreadable_root(void **state)
{
	struct fixture *f = *state;

	assert_true(become_user());
	put_file(f, "x", "x");
	scan_and_take(f);
	assert_int_equal(unlink(at(f, "x")), 0);
	assert_int_equal(chmod(f->root, 0111), 0);
	assert_int_equal(scan_with(f, (struct scan_options){0}), STORE_ROOT_CHANGED);
	assert_seen(f, "");
	assert_int_equal(chmod(f->root, 0755), 0);
	become_root();
}

static void remove_d_on_entering(struct fixture *f, const char *word, const char *path)
{
	if (!strcmp(word, "enter") && !strcmp(path, "d"))
		assert_int_equal(rmdir(at(f, "d")), 0);
}

/* A listing that fails proves nothing. */
static void test_listing_fails(void **state)
{
	struct fixture *f = *state;

	make_dir(f, "d");
	scan_and_take(f);
	add_row(f, "d/x", true, RECORD_FILE, ROW_ON_DISK);
	f->hook = remove_d_on_entering;
	scan(f);
	assert_seen(f, "error d\n");
	f->hook = NULL;
	scan(f);
	assert_seen(f, "gone d\ngone d/x\n");
}

/* --- races --- */

static void add_on_entering(struct fixture *f, const char *word, const char *path)
{
	if (!strcmp(word, "enter") && !strcmp(path, "d"))
		put_file(f, "d/just-now", "x");
}

static void test_directory_is_told_before_it_is_read(void **state)
{
	struct fixture *f = *state;

	make_dir(f, "d");
	f->hook = add_on_entering;
	scan(f);
	assert_seen(f, "new d\nnew d/just-now\n");
}

static void replace_root(struct fixture *f, const char *word, const char *path)
{
	if (strcmp(word, "new") || strcmp(path, "b"))
		return;
	assert_int_equal(rename(f->root, at(f, "../away")), 0);
	assert_int_equal(mkdir(f->root, 0755), 0);
}

static void test_replaced_root(void **state)
{
	struct fixture *f = *state;

	put_file(f, "a", "x");
	scan_and_take(f);
	take_away(f, "a");
	put_file(f, "b", "x");
	f->hook = replace_root;
	assert_int_equal(scan_with(f, (struct scan_options){0}), STORE_ROOT_CHANGED);
	assert_seen(f, "new b\n"); /* no word of a */
	f->hook = NULL;
	assert_int_equal(scan_with(f, (struct scan_options){0}), STORE_ROOT_CHANGED);
	assert_seen(f, "");
}

static void swap_d(struct fixture *f, const char *word, const char *path)
{
	if (!strcmp(word, "enter") && !strcmp(path, "d")) {
		move(f, "d", "old");
		move(f, "next", "d");
	}
}

/* A directory is exchanged for another while it is being read: what the old one lacks is not gone.
 */
static void test_directory_moved_while_it_is_read(void **state)
{
	struct fixture *f = *state;

	make_dir(f, "d");
	make_dir(f, "d/sub");
	put_file(f, "d/sub/x", "x");
	scan_and_take(f);
	take_away(f, "d/sub/x");
	make_dir(f, "next");
	make_dir(f, "next/sub");
	put_file(f, "next/sub/x", "x");
	f->hook = swap_d;
	scan_subtree(f, "d");
	assert_seen(f, "unsettled d/sub\n");
}

static struct rlimit files;

static void no_descriptors(struct fixture *f, const char *word, const char *path)
{
	int next = dup(0);
	struct rlimit limit = {.rlim_cur = (rlim_t)next, .rlim_max = files.rlim_max};

	(void)f;
	close(next);
	if (!strcmp(word, "new") && !strcmp(path, "d/link"))
		assert_int_equal(setrlimit(RLIMIT_NOFILE, &limit), 0);
}

/* Whether the directory is still there can't be asked: nothing in it is gone, and it is told, as any lack of descriptors. */
static void test_directory_is_not_found_again(void **state)
{
	struct fixture *f = *state;

	make_dir(f, "d");
	make_dir(f, "d/x");
	scan_and_take(f);
	assert_int_equal(rmdir(at(f, "d/x")), 0);
	assert_int_equal(symlink("target", at(f, "d/link")), 0);
	assert_int_equal(getrlimit(RLIMIT_NOFILE, &files), 0);
	f->hook = no_descriptors;
	assert_int_equal(scan_with(f, (struct scan_options){.subtree = "d"}), -EMFILE);
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &files), 0);
	assert_seen(f, "new d/link\n");
}

struct toggler {
	pthread_t thread;
	char path[128];
	atomic_bool stop;
};

static void *toggle(void *data)
{
	struct toggler *t = data;

	for (int k = 0; !atomic_load(&t->stop); k++)
		if (chmod(t->path, k % 2 ? 0644 : 0640))
			return t;
	return NULL;
}

static void test_changes_while_it_is_read(void **state)
{
	struct fixture *f = *state;
	struct toggler t = {0};

	put_big_file(f, "big", 8 << 20, 4);
	set_mtime(f, "big", 1000);
	snprintf(t.path, sizeof(t.path), "%s/big", f->root);
	assert_int_equal(pthread_create(&t.thread, NULL, toggle, &t), 0);
	scan(f);
	atomic_store(&t.stop, true);
	pthread_join(t.thread, NULL);
	assert_seen(f, "unsettled big\n");
	assert_int_equal(f->counts.unsettled, 1);
	scan(f);
	assert_seen(f, "new big\n");
}

static void test_young_and_open_for_writing(void **state)
{
	struct fixture *f = *state;
	int fd;

	if (!store_abilities(f->store)->lease)
		skip();
	put_file(f, "f", "half");
	fd = open(at(f, "f"), O_WRONLY | O_APPEND | O_CLOEXEC);
	assert_true(fd >= 0);
	scan(f);
	assert_seen(f, "unsettled f\n");
	set_mtime(f, "f", 1000 * CLOCK_NS_PER_S); /* open for long: a log, a database */
	scan(f);
	assert_seen(f, "new f\n");
	close(fd);
	put_file(f, "f", "all");
	scan(f);
	assert_seen(f, "new f\n");
}

static void test_symlinks_are_not_followed(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(mkdir(at(f, "../outside"), 0755), 0);
	put_file(f, "../outside/secret", "x");
	assert_int_equal(symlink("../outside", at(f, "d")), 0);
	assert_int_equal(symlink("../outside/secret", at(f, "f")), 0);
	scan(f);
	assert_seen(f, "new d\nnew f\n");
	assert_int_equal(f->counts.bytes_hashed, 0);
	scan_subtree(f, "d/secret");
	assert_seen(f, "");
	add_row(f, "d/secret", true, RECORD_FILE, ROW_ON_DISK);
	scan_subtree(f, "d/secret");
	assert_seen(f, "gone d/secret\n");
}

/* --- moved files --- */

static void test_moved_files_are_recognised(void **state)
{
	struct fixture *f = *state;
	struct content big;

	make_dir(f, "d");
	put_file(f, "d/small", "x");
	put_big_file(f, "d/big", 200000, 5);
	set_mtime(f, "d/small", 1000);
	set_mtime(f, "d/big", 1000);
	put_big_file(f, "alone", 200000, 6);
	set_mtime(f, "alone", 1000);
	scan_and_take(f);
	big = find_seen(f, "d/big")->state.content;
	move(f, "d", "e"); /* the files' ctimes stay */
	scan(f);
	assert_seen(f, "new e\nnew e/big\nnew e/small\ngone d\ngone d/big\ngone d/small\n");
	assert_int_equal(f->counts.bytes_hashed, 0);
	assert_true(content_equal(&find_seen(f, "e/big")->state.content, &big));
	assert_true(find_seen(f, "e/big")->n_nodes > 0);
	take(f);
	scan(f);
	assert_seen(f, "");
	move(f, "alone", "renamed");
	scan(f);
	assert_seen(f, "new renamed\ngone alone\n");
	assert_true(f->counts.bytes_hashed == 0 || f->counts.bytes_hashed == 200000);
	take(f);
	assert_int_equal(scan_with(f, (struct scan_options){.rehash_before_ns = INT64_MAX}), 0);
	assert_seen(f, "");
}

static void forge_inode_reuse(struct row *row)
{
	forge_content(row);
	row->stamp.ctime_ns -= CLOCK_NS_PER_S;
	row->stamp.generation = row->stamp.generation ? row->stamp.generation + 1 : 0;
}

/* A freed inode was given out again, and an archive set the same mtime: another file all the same.
 */
static void test_reused_inode_is_not_a_move(void **state)
{
	struct fixture *f = *state;

	put_file(f, "old", "12345");
	set_mtime(f, "old", 1000);
	scan_and_take(f);
	move(f, "old", "new");
	edit_row(f, "old", forge_inode_reuse);
	scan(f);
	assert_seen(f, "new new\ngone old\n");
	assert_int_equal(f->counts.bytes_hashed, 5);
	assert_int_not_equal(f->seen[0].state.content.root.bytes[0], 0x55);
}

/* --- parts --- */

static void test_subtree(void **state)
{
	struct fixture *f = *state;

	make_dir(f, "a");
	make_dir(f, "a/b");
	put_file(f, "a/b/c", "x");
	put_file(f, "a/b.x", "x");
	put_file(f, "z", "x");
	scan_subtree(f, "a/b");
	assert_seen(f, "new a/b\nnew a/b/c\n");
	scan_subtree(f, "a/b/c");
	assert_seen(f, "new a/b/c\n");
	scan_subtree(f, "nothing/here");
	assert_seen(f, "");
	scan_subtree(f, "z/below/a/file");
	assert_seen(f, "");
	scan_and_take(f);
	put_file(f, "z", "other");
	take_away(f, "a/b");
	scan_subtree(f, "a/b/c");
	assert_seen(f, "gone a/b/c\n");
	scan_subtree(f, "a/b");
	assert_seen(f, "gone a/b\ngone a/b/c\n");
	put_file(f, "a/b", "a file now");
	scan_subtree(f, "a/b/c");
	assert_seen(f, "gone a/b/c\n");
	scan_subtree(f, ".syncd/staging/x");
	assert_seen(f, "");
	scan_subtree(f, ".syncd");
	assert_seen(f, "");
	scan_subtree(f, "a/.Syncd");
	assert_seen(f, "left-out a/.Syncd\n");
	scan_subtree(f, "a//b");
	assert_int_equal(f->seen[0].error, -EINVAL);
}

static void test_subtree_and_rules(void **state)
{
	struct fixture *f = *state;

	make_dir(f, "a");
	make_dir(f, "a/cache");
	put_file(f, "a/cache/x", "x");
	put_file(f, "a/y", "x");
	put_file(f, "z", "x");
	scan_and_take(f);
	/* a rule that is met on the way has changed: all below its directory is looked at */
	put_file(f, "a/.syncignore", "cache\n");
	scan_subtree(f, "a/y");
	assert_seen(f, "new a/.syncignore\nignored a/cache\nignored a/cache/x\n");
	take(f);
	put_file(f, "a/cache/new", "x");
	scan_subtree(f, "a/cache/new");
	assert_seen(f, "");
	scan_subtree(f, "a/cache");
	assert_seen(f, "");
	put_file(f, "a/.syncignore", "");
	assert_int_equal(scan_with(f, (struct scan_options){.subtree = "a", .shallow = true}), 0);
	assert_seen(f, "changed a/.syncignore\nnew a/cache\nnew a/cache/new\nnew a/cache/x\n");
}

static void test_shallow(void **state)
{
	struct fixture *f = *state;
	struct scan_options root = {.shallow = true}, a = {.shallow = true, .subtree = "a"};

	make_dir(f, "a");
	make_dir(f, "a/known");
	put_file(f, "a/known/x", "x");
	put_file(f, "a/file", "x");
	scan_and_take(f);
	put_file(f, "a/known/unseen", "x");
	put_file(f, "a/file", "y");
	make_dir(f, "a/fresh");
	make_dir(f, "a/fresh/deep");
	put_file(f, "a/fresh/deep/x", "x");
	put_file(f, "top", "x");
	assert_int_equal(chmod(at(f, "a/known"), 0700), 0);
	assert_int_equal(scan_with(f, root), 0);
	assert_seen(f, "new top\n");
	assert_int_equal(scan_with(f, a), 0);
	assert_seen(f, "changed a/file\nnew a/fresh\nnew a/fresh/deep\nnew a/fresh/deep/x\ntouched "
		       "a/known\n");
	take_away(f, "a/known");
	assert_int_equal(scan_with(f, a), 0);
	assert_seen(f, "changed a/file\nnew a/fresh\nnew a/fresh/deep\nnew a/fresh/deep/x\ngone "
		       "a/known\ngone a/known/x\n");
	a.subtree = "a/file";
	assert_int_equal(scan_with(f, a), 0);
	assert_seen(f, "changed a/file\n");
}

static bool is_a(const char *path, void *data)
{
	(void)data;
	return !strcmp(path, "a") || !strcmp(path, "b/c");
}

static void test_busy_paths_are_passed_over(void **state)
{
	struct fixture *f = *state;

	make_dir(f, "a");
	put_file(f, "a/x", "x");
	make_dir(f, "b");
	put_file(f, "b/c", "x");
	scan_and_take(f);
	put_file(f, "a/new", "x");
	take_away(f, "b");
	assert_int_equal(scan_with(f, (struct scan_options){.busy = is_a}), 0);
	assert_seen(f, "gone b\n");
	assert_int_equal(scan_with(f, (struct scan_options){.busy = is_a, .subtree = "a/new"}), 0);
	assert_seen(f, "");
}

static void test_stop_and_cancel(void **state)
{
	struct fixture *f = *state;
	atomic_bool cancel = true;

	put_file(f, "a", "x");
	put_file(f, "b", "x");
	put_file(f, "gone", "x");
	scan_and_take(f);
	take_away(f, "gone");
	put_file(f, "c", "x");
	assert_int_equal(scan_with(f, (struct scan_options){.cancel = &cancel}), -ECANCELED);
	assert_seen(f, "");
	f->stop_after = 1;
	assert_int_equal(scan_with(f, (struct scan_options){0}), 77);
	assert_seen(f, "new c\n");
}

static void cancel_at_first(struct fixture *f, const char *what, const char *path)
{
	(void)path;
	if (!strcmp(what, "new"))
		atomic_store(&f->cancel, true);
}

/* Files may be waiting, and being read, when it is over; what was told is a beginning of what would have been. */
static void test_stop_and_cancel_among_many(void **state)
{
	struct fixture *f = *state;
	char name[32];

	for (int k = 0; k < 300; k++) {
		snprintf(name, sizeof(name), "f%03d", k);
		put_big_file(f, name, k % 100 == 99 ? 5000000 : 100, (unsigned)k);
	}
	f->stop_after = 150;
	assert_int_equal(scan_with(f, (struct scan_options){0}), 77);
	assert_int_equal(f->n, 150);
	for (size_t k = 0; k < f->n; k++) {
		snprintf(name, sizeof(name), "f%03zu", k);
		assert_string_equal(f->seen[k].path, name);
	}
	f->stop_after = 0;
	f->hook = cancel_at_first;
	assert_int_equal(scan_with(f, (struct scan_options){.cancel = &f->cancel}), -ECANCELED);
	assert_seen(f, "new f000\n");
	f->hook = NULL;
	scan(f);
	assert_int_equal(f->n, 300);
}

/* --- sizes --- */

static void test_deep_tree(void **state)
{
	struct fixture *f = *state;
	char path[1200] = "";
	size_t n = 0;

	for (int k = 0; k < 250; k++) {
		n += (size_t)sprintf(path + n, "%sd%d", k ? "/" : "", k % 10);
		make_dir(f, path);
	}
	strcpy(path + n, "/leaf");
	put_file(f, path, "x");
	scan(f);
	assert_int_equal(f->n, 251);
	assert_string_equal(f->seen[250].path, path);
	take(f);
	scan(f);
	assert_seen(f, "");
	assert_int_equal(f->counts.directories, 250);
	take_away(f, path);
	scan(f);
	assert_int_equal(f->n, 1);
	assert_int_equal(f->seen[0].what, SCAN_GONE);
	take(f);
	take_away(f, "d0/d1/d2");
	scan(f);
	assert_int_equal(f->n, 248);
}

static void test_too_deep(void **state)
{
	struct fixture *f = *state;
	char path[1200] = "";
	size_t n = 0;

	for (int k = 0; k < 300; k++) {
		n += (size_t)sprintf(path + n, "%sd", k ? "/" : "");
		make_dir(f, path);
	}
	scan(f);
	assert_int_equal(f->n, 257);
	assert_int_equal(f->seen[256].what, SCAN_LEFT_OUT);
	assert_int_equal(f->seen[256].error, -ENAMETOOLONG);
}

static void test_wide_directory(void **state)
{
	struct fixture *f = *state;
	char name[64];
	int dir;

	make_dir(f, "wide");
	dir = open(at(f, "wide"), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	assert_true(dir >= 0);
	for (int k = 0; k < 50000; k++) {
		snprintf(name, sizeof(name), "entry-%d", k);
		assert_int_equal(k % 100 ? symlinkat("x", dir, name) : mkdirat(dir, name, 0755), 0);
	}
	scan_and_take(f);
	assert_int_equal(f->n, 50001);
	scan(f);
	assert_seen(f, "");
	for (int k = 7; k < 50000; k += 5000) {
		snprintf(name, sizeof(name), "entry-%d", k);
		assert_int_equal(unlinkat(dir, name, 0), 0);
	}
	scan(f);
	assert_int_equal(f->n, 10);
	for (size_t k = 0; k < f->n; k++)
		assert_int_equal(f->seen[k].what, SCAN_GONE);
	close(dir);
}

#define MANY 1300

static const char *nth(char ret[32], int k)
{
	snprintf(ret, 32, "wide/%04d", k);
	return ret;
}

/* What happens to the name, if anything. */
static const char *change_nth(struct fixture *f, int k)
{
	char name[32];

	nth(name, k);
	if (k % 7 == 3) {
		put_file(f, name, "edited");
		return "changed";
	}
	if (k % 11 == 5) {
		assert_int_equal(chmod(at(f, name), 0600), 0);
		return "touched";
	}
	if (k % 13 == 6) {
		assert_int_equal(unlink(at(f, name)), 0);
		return "gone";
	}
	return "";
}

static void change_behind(struct fixture *f, const char *what, const char *path)
{
	(void)what;
	if (strcmp(path, "wide/0000"))
		return;
	put_file(f, "wide/1100", "edited behind");
	assert_int_equal(unlink(at(f, "wide/1101")), 0);
}

/* Wherever a thread has got to that looks ahead. */
static void test_changes_among_many(void **state)
{
	struct buf expected = BUF_INIT, gone = BUF_INIT;
	struct fixture *f = *state;
	char name[32], line[64];
	struct row row = {0};

	make_dir(f, "wide");
	for (int k = 0; k < MANY; k++)
		put_file(f, nth(name, k), "as it was");
	scan_and_take(f);
	assert_int_equal(f->n, MANY + 1);
	for (int k = 0; k < MANY; k++) {
		const char *what = change_nth(f, k);

		snprintf(line, sizeof(line), "%s %s\n", what, nth(name, k));
		if (*what)
			put_bytes(*what == 'g' ? &gone : &expected, line, strlen(line));
	}
	put_bytes(&expected, gone.data, gone.len);
	put_u8(&expected, 0);
	scan_and_take(f);
	assert_seen(f, (const char *)expected.data);
	scan(f);
	assert_seen(f, "");

	put_file(f, "wide/0000", "edited");
	f->hook = change_behind;
	scan_and_take(f); /* what was behind is seen now, or next time */
	f->hook = NULL;
	scan_and_take(f);
	scan(f);
	assert_seen(f, "");
	assert_true(get_row(f, "wide/1100", &row));
	assert_int_equal(row.record.content.size, strlen("edited behind"));
	row_deinit(&row);
	assert_false(get_row(f, "wide/1101", &row));
	buf_deinit(&expected);
	buf_deinit(&gone);
}

/* Keys are cut from 440 bytes on: the index's order is not that of paths there. */
static void test_long_names(void **state)
{
	struct fixture *f = *state;
	char dir[1000], path[1400], c[251];
	size_t total = 0;

	memset(c, 'c', 250);
	c[250] = '\0';
	for (int k = 0; k < 4; k++) {
		snprintf(dir, sizeof(dir), "%.*s%d", 200 + 5 * k, c, k);
		make_dir(f, dir);
		snprintf(path, sizeof(path), "%s/%.*s", dir, 230, c);
		make_dir(f, path);
		strcpy(dir, path);
		for (int m = 0; m < 40; m++) {
			snprintf(path, sizeof(path), "%s/%d%.*s", dir, m * 7 % 40, m % 3 * 50, c);
			make_dir(f, path);
			strcat(path, "/x");
			put_file(f, path, "x");
		}
		snprintf(path, sizeof(path), "%s.file", dir);
		put_file(f, path, "x");
		total += 2 + 80 + 1;
	}
	scan(f);
	assert_int_equal(f->n, total);
	take(f);
	scan(f);
	assert_seen(f, "");
	/* some in the midst, and then a whole tree */
	take_away(f, path);
	scan(f);
	assert_int_equal(f->n, 1);
	take(f);
	snprintf(path, sizeof(path), "%s/%d", dir, 21); /* m = 3 */
	take_away(f, path);
	scan(f);
	assert_int_equal(f->n, 2);
	assert_string_equal(f->seen[0].path, path);
	scan_subtree(f, path);
	assert_int_equal(f->n, 2);
	take(f);
	scan(f);
	assert_seen(f, "");
	strchr(dir, '/')[0] = '\0';
	take_away(f, dir);
	scan(f);
	assert_int_equal(f->n, 2 + 78);
	for (size_t k = 0; k < f->n; k++)
		assert_int_equal(f->seen[k].what, SCAN_GONE);
	take(f);
	scan(f);
	assert_seen(f, "");
}

/* --- any history --- */

static uint64_t random_state;

static unsigned pick(unsigned below)
{
	random_state = random_state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
	return (unsigned)(random_state >> 33) % below;
}

static void random_path(char *ret, size_t cap)
{
	static const char *const names[] = {"a", "b", "a.b", "c-c", "\xff"};
	unsigned depth = 1 + pick(3);

	ret[0] = '\0';
	for (unsigned k = 0; k < depth; k++) {
		size_t n = strlen(ret);

		snprintf(ret + n, cap - n, "%s%s", k ? "/" : "", names[pick(5)]);
	}
}

static void random_change(struct fixture *f)
{
	char path[64], other[64], text[8];
	int fd;

	random_path(path, sizeof(path));
	random_path(other, sizeof(other));
	switch (pick(7)) {
	case 0:
	case 1:
		mkdir(at(f, path), 0755);
		break;
	case 2:
	case 3:
		fd = open(at(f, path), O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0644);
		snprintf(text, sizeof(text), "%u", pick(100));
		if (fd >= 0)
			assert_true(write(fd, text, strlen(text)) > 0);
		close(fd);
		break;
	case 4:
		remove_tree(at(f, path));
		break;
	case 5:
		(void)!rename(at(f, path), at(f, other));
		break;
	case 6:
		(void)!symlink(other, at(f, path));
		break;
	}
}

/* After what a scan said is taken up, the index is what a scan of an empty index would say. */
static void assert_index_is_disk(struct fixture *f)
{
	struct index_counts counts;
	struct index_txn *t;

	scan(f);
	assert_seen(f, "");
	assert_int_equal(index_begin_read(store_index(f->store), &t), 0);
	assert_int_equal(index_counts(t, &counts), 0);
	index_abort(t);
	assert_int_equal(counts.live, f->counts.files + f->counts.directories + f->counts.symlinks);
	assert_int_equal(scan_with(f, (struct scan_options){.rehash_before_ns = INT64_MAX}), 0);
	assert_seen(f, "");
}

static void test_any_history(void **state)
{
	struct fixture *f = *state;

	random_state = 42;
	for (int round = 0; round < 60; round++) {
		unsigned n = pick(12);

		for (unsigned k = 0; k < n; k++)
			random_change(f);
		scan_and_take(f);
		assert_index_is_disk(f);
	}
}

/* --- scan_look --- */

static void test_look(void **state)
{
	struct fixture *f = *state;
	struct chunk_tree_node *nodes = NULL;
	struct record r = {0};
	struct stamp stamp;
	size_t n = 99;
	int root = store_root(f->store);

	assert_int_equal(
		scan_look(f->store, root, "absent", &r, &stamp, &nodes, &n), FILE_VANISHED);
	assert_int_equal(mkfifo(at(f, "fifo"), 0644), 0);
	assert_int_equal(
		scan_look(f->store, root, "fifo", &r, &stamp, &nodes, &n), FILE_UNSUPPORTED);
	assert_int_equal(n, 99);

	make_dir(f, "d");
	assert_int_equal(scan_look(f->store, root, "d", &r, &stamp, &nodes, &n), 0);
	assert_int_equal(r.kind, RECORD_DIRECTORY);
	assert_int_equal(n, 0);
	record_deinit(&r);
	scan_nodes_free(nodes, n);

	assert_int_equal(symlink("there", at(f, "l")), 0);
	assert_int_equal(scan_look(f->store, root, "l", &r, &stamp, &nodes, &n), 0);
	assert_string_equal(r.target, "there");
	record_deinit(&r);
	scan_nodes_free(nodes, n);

	put_big_file(f, "big", 150000, 7);
	assert_int_equal(scan_look(f->store, root, "big", &r, &stamp, &nodes, &n), 0);
	assert_int_equal(r.content.size, 150000);
	assert_int_equal(stamp.size, 150000);
	assert_true(n > 0);
	record_deinit(&r);
	scan_nodes_free(nodes, n);
}

struct written {
	struct fixture *f;
	unsigned asked, at;
};

static bool written_meanwhile(void *data)
{
	struct written *w = data;

	if (++w->asked == w->at)
		set_mtime(w->f, "big", 1700000000 * CLOCK_NS_PER_S);
	return false;
}

/* Whoever reads it finds that out long before its end. */
static void test_large_file_that_is_being_written(void **state)
{
	struct fixture *f = *state;
	struct written w = {.f = f, .at = 70};
	struct scan_object o = {.cancelled = written_meanwhile, .data = &w};

	put_big_file(f, "big", 20 << 20, 5);
	set_mtime(f, "big", 1600000000 * CLOCK_NS_PER_S);
	assert_int_equal(file_stat_at(store_root(f->store), "big", &o.st), 0);
	assert_int_equal(scan_object_read(&o, f->store, store_root(f->store), "big", CHUNK_BITS_MIN), FILE_BUSY);
	assert_in_range(w.asked, 70, 70 + 64);
	assert_null(o.nodes);
	w = (struct written){.f = f};
	assert_int_equal(file_stat_at(store_root(f->store), "big", &o.st), 0);
	assert_int_equal(scan_object_read(&o, f->store, store_root(f->store), "big", CHUNK_BITS_MIN), 0);
	assert_true(w.asked > 200);
	scan_object_deinit(&o);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_empty_root, setup, teardown),
		cmocka_unit_test_setup_teardown(test_new_objects_in_path_order, setup, teardown),
		cmocka_unit_test_setup_teardown(test_clean_tree_is_not_read, setup, teardown),
		cmocka_unit_test_setup_teardown(test_stored_through_a_mapping, setup, teardown),
		cmocka_unit_test_setup_teardown(test_recorded_since, setup, teardown),
		cmocka_unit_test_setup_teardown(
			test_new_over_rows_that_are_not_on_disk, setup, teardown),
		cmocka_unit_test_setup_teardown(
			test_implied_directory_is_nothing_new, setup, teardown),
		cmocka_unit_test_setup_teardown(test_changed, setup, teardown),
		cmocka_unit_test_setup_teardown(test_touched, setup, teardown),
		cmocka_unit_test_setup_teardown(test_edits_that_hide, setup, teardown),
		cmocka_unit_test_setup_teardown(test_times_of_any_century, setup, teardown),
		cmocka_unit_test_setup_teardown(test_restamp_of_an_equal_copy, setup, teardown),
		cmocka_unit_test_setup_teardown(test_racily_clean_is_read_again, setup, teardown),
		cmocka_unit_test_setup_teardown(test_edit_within_one_tick, setup, teardown),
		cmocka_unit_test_setup_teardown(test_exact_is_not_read_again, setup, teardown),
		cmocka_unit_test_setup_teardown(test_exact_grows_old, setup, teardown),
		cmocka_unit_test_setup_teardown(test_not_exact_while_open, setup, teardown),
		cmocka_unit_test_setup_teardown(test_rehash_trusts_no_stamp, setup, teardown),
		cmocka_unit_test_setup_teardown(
			test_edit_with_size_and_mtime_put_back, setup, teardown),
		cmocka_unit_test_setup_teardown(test_kinds_change, setup, teardown),
		cmocka_unit_test_setup_teardown(test_gone, setup, teardown),
		cmocka_unit_test_setup_teardown(
			test_what_was_not_on_disk_is_not_gone, setup, teardown),
		cmocka_unit_test_setup_teardown(test_gone_without_the_parents_row, setup, teardown),
		cmocka_unit_test_setup_teardown(test_ignored, setup, teardown),
		cmocka_unit_test_setup_teardown(test_ignored_below_what_is_gone, setup, teardown),
		cmocka_unit_test_setup_teardown(
			test_unreadable_rules_stop_at_their_directory, setup, teardown),
		cmocka_unit_test_setup_teardown(test_special_files, setup, teardown),
		cmocka_unit_test_setup_teardown(test_invalid_names, setup, teardown),
		cmocka_unit_test_setup_teardown(test_folder_inside, setup, teardown),
		cmocka_unit_test_setup_teardown(test_mount, setup, teardown),
		cmocka_unit_test_setup_teardown(test_hard_links_are_counted, setup, teardown),
		cmocka_unit_test_setup_teardown(test_unreadable, setup, teardown),
		cmocka_unit_test_setup_teardown(test_unreadable_root, setup, teardown),
		cmocka_unit_test_setup_teardown(test_listing_fails, setup, teardown),
		cmocka_unit_test_setup_teardown(
			test_directory_is_told_before_it_is_read, setup, teardown),
		cmocka_unit_test_setup_teardown(test_replaced_root, setup, teardown),
		cmocka_unit_test_setup_teardown(
			test_directory_moved_while_it_is_read, setup, teardown),
		cmocka_unit_test_setup_teardown(test_directory_is_not_found_again, setup, teardown),
		cmocka_unit_test_setup_teardown(test_changes_while_it_is_read, setup, teardown),
		cmocka_unit_test_setup_teardown(test_young_and_open_for_writing, setup, teardown),
		cmocka_unit_test_setup_teardown(test_symlinks_are_not_followed, setup, teardown),
		cmocka_unit_test_setup_teardown(test_moved_files_are_recognised, setup, teardown),
		cmocka_unit_test_setup_teardown(test_reused_inode_is_not_a_move, setup, teardown),
		cmocka_unit_test_setup_teardown(test_subtree, setup, teardown),
		cmocka_unit_test_setup_teardown(test_subtree_and_rules, setup, teardown),
		cmocka_unit_test_setup_teardown(test_shallow, setup, teardown),
		cmocka_unit_test_setup_teardown(test_busy_paths_are_passed_over, setup, teardown),
		cmocka_unit_test_setup_teardown(test_stop_and_cancel, setup, teardown),
		cmocka_unit_test_setup_teardown(test_stop_and_cancel_among_many, setup, teardown),
		cmocka_unit_test_setup_teardown(test_deep_tree, setup, teardown),
		cmocka_unit_test_setup_teardown(test_too_deep, setup, teardown),
		cmocka_unit_test_setup_teardown(test_wide_directory, setup_in_memory, teardown),
		cmocka_unit_test_setup_teardown(test_changes_among_many, setup_in_memory, teardown),
		cmocka_unit_test_setup_teardown(test_long_names, setup, teardown),
		cmocka_unit_test_setup_teardown(test_any_history, setup, teardown),
		cmocka_unit_test_setup_teardown(test_look, setup, teardown),
		cmocka_unit_test_setup_teardown(test_large_file_that_is_being_written, setup, teardown),
	};

	int failed = cmocka_run_group_tests(tests, NULL, NULL);

	threads = 3;
	return failed + cmocka_run_group_tests_name("with threads", tests, NULL, NULL);
}
