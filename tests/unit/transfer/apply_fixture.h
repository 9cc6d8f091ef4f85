/* tests/unit/transfer/apply_fixture.h — a folder in a temporary place, and a peer whose records are made up. */
#ifndef TESTS_APPLY_FIXTURE_H
#define TESTS_APPLY_FIXTURE_H

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/random.h"
#include "tombstones/conflict.h"
#include "tombstones/observe.h"
#include "transfer/apply.h"
#include "tests/unit/where.h"

#define PEER_REPLICA 4242
#define PEER_INC 0x1111111111111111
#define OTHER_INC 0x2222222222222222
#define ITEMS_MAX 2000

struct fixture {
	char root[200];
	struct replica *r; /* NULL while closed */
	bool no_exchange;  /* as on a file system without it */
	struct ignore *ignore;
	uint64_t counter; /* the peer's events */
	struct version_vector their_k;
	struct apply_options options;
	struct apply_item items[ITEMS_MAX];
	struct record *theirs[ITEMS_MAX];
	char *names[ITEMS_MAX];
	size_t n;
};

#define OK(e) assert_int_equal((e), 0)

/* --- the folder --- */

static inline void fx_open(struct fixture *f)
{
	struct store_options options = {.create = true};
	struct store *s;

	OK(store_open(&s, f->root, &options));
	OK(replica_open(&f->r, s));
	f->options.replica = f->r;
	if (f->no_exchange)
		((struct file_abilities *)store_abilities(replica_store(f->r)))->exchange = false;
}

static inline void fx_close(struct fixture *f)
{
	replica_close(f->r);
	f->r = NULL;
}

static inline struct store *fx_store(struct fixture *f)
{
	return replica_store(f->r);
}

static inline void fx_introduce(struct fixture *f)
{
	const struct version_incarnation i[] = {
		{.inc = PEER_INC, .replica = PEER_REPLICA},
		{.inc = OTHER_INC, .replica = PEER_REPLICA + 1},
	};
	struct replica_txn t;

	replica_lock(f->r);
	OK(replica_begin(f->r, &t));
	OK(replica_learn_lineage(&t, i, 2));
	OK(replica_commit(&t));
	replica_unlock(f->r);
}

static inline struct fixture *fx_new_in(const char *place)
{
	struct fixture *f = calloc(1, sizeof(*f));

	assert_non_null(f);
	snprintf(f->root, sizeof(f->root), "%s/syncd-apply-XXXXXX", place);
	assert_non_null(mkdtemp(f->root));
	OK(ignore_new(&f->ignore));
	f->options.source = PEER_REPLICA;
	fx_open(f);
	OK(apply_recover(f->r, NULL));
	fx_introduce(f);
	return f;
}

static inline struct fixture *fx_new(void)
{
	return fx_new_in(where_disk());
}

static inline void fx_forget_items(struct fixture *f)
{
	for (size_t k = 0; k < f->n; k++) {
		if (f->theirs[k])
			record_deinit(f->theirs[k]);
		free(f->theirs[k]);
		free(f->names[k]);
		f->theirs[k] = NULL;
		f->names[k] = NULL;
		f->items[k] = (struct apply_item){0};
	}
	f->n = 0;
}

static inline int fx_remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	(void)st, (void)type, (void)ftw;
	return remove(path);
}

static inline void fx_free(struct fixture *f)
{
	fx_forget_items(f);
	if (f->r)
		fx_close(f);
	ignore_free(f->ignore);
	version_vector_deinit(&f->their_k);
	nftw(f->root, fx_remove_one, 16, FTW_DEPTH | FTW_PHYS);
	free(f);
}

/* --- the disk, as a user --- */

static inline const char *fx_path(const struct fixture *f, const char *path)
{
	static char ring[4][1024];
	static int at;
	char *p = ring[at++ & 3];

	assert_true((size_t)snprintf(p, sizeof(ring[0]), "%s/%s", f->root, path) < sizeof(ring[0]));
	return p;
}

static inline void fx_mkdir(struct fixture *f, const char *path)
{
	OK(mkdir(fx_path(f, path), 0755));
}

static inline void fx_write_raw(const char *at, const char *text)
{
	int fd = open(at, O_WRONLY | O_CREAT | O_TRUNC, 0644);
	size_t n = strlen(text);

	assert_true(fd >= 0);
	assert_int_equal(write(fd, text, n), n);
	close(fd);
}

static inline void fx_write(struct fixture *f, const char *path, const char *text)
{
	fx_write_raw(fx_path(f, path), text);
}

static inline bool fx_exists(const struct fixture *f, const char *path)
{
	struct stat st;

	return lstat(fx_path(f, path), &st) == 0;
}

/* "" where there is none, "<dir>", or "-> target" */
static inline const char *fx_read(const struct fixture *f, const char *path)
{
	static char ring[4][4096];
	static int at;
	char *p = ring[at++ & 3];
	struct stat st;
	int fd;
	ssize_t n;

	p[0] = '\0';
	if (lstat(fx_path(f, path), &st) != 0)
		return p;
	if (S_ISDIR(st.st_mode))
		return "<dir>";
	if (S_ISLNK(st.st_mode)) {
		strcpy(p, "-> ");
		n = readlink(fx_path(f, path), p + 3, sizeof(ring[0]) - 4);
		assert_true(n >= 0);
		p[3 + n] = '\0';
		return p;
	}
	fd = open(fx_path(f, path), O_RDONLY);
	assert_true(fd >= 0);
	n = read(fd, p, sizeof(ring[0]) - 1);
	assert_true(n >= 0);
	p[n] = '\0';
	close(fd);
	return p;
}

/* As fx_live_values says of a file. */
static inline void fx_write_like_theirs(struct fixture *f, const char *path, const char *text)
{
	struct timespec times[] = {{.tv_nsec = UTIME_OMIT}, {.tv_sec = 1500000000}};

	fx_write(f, path, text);
	OK(chmod(fx_path(f, path), 0640));
	OK(utimensat(AT_FDCWD, fx_path(f, path), times, 0));
}

/* Where a content is, in the folder and in .syncd/. */
struct fx_search {
	const char *text;
	unsigned in_place, in_trash, in_staging, asides;
};
static struct fx_search fx_search_state;

static inline int fx_search_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	char text[4096];
	ssize_t n;
	int fd;

	(void)type, (void)ftw;
	if (!S_ISREG(st->st_mode) || strstr(path, "/.syncd/index/"))
		return 0;
	fd = open(path, O_RDONLY);
	if (fd < 0)
		return 0;
	n = read(fd, text, sizeof(text) - 1);
	close(fd);
	text[n < 0 ? 0 : n] = '\0';
	if (strcmp(text, fx_search_state.text) != 0)
		return 0;
	if (strstr(path, "/.syncd/trash/"))
		fx_search_state.in_trash++;
	else if (strstr(path, "/.syncd/staging/"))
		fx_search_state.in_staging++;
	else if (strstr(path, ".sync-conflict-"))
		fx_search_state.asides++;
	else
		fx_search_state.in_place++;
	return 0;
}

static inline struct fx_search fx_find(const struct fixture *f, const char *text)
{
	fx_search_state = (struct fx_search){.text = text};
	nftw(f->root, fx_search_one, 16, FTW_PHYS);
	return fx_search_state;
}

static inline unsigned fx_found(const struct fixture *f, const char *text)
{
	struct fx_search s = fx_find(f, text);

	return s.in_place + s.in_trash + s.asides;
}

static unsigned fx_count_state;
static inline int fx_count_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	(void)path, (void)st, (void)type, (void)ftw;
	fx_count_state++;
	return 0;
}

/* Objects in staging. */
static inline unsigned fx_staging(const struct fixture *f)
{
	fx_count_state = 0;
	nftw(fx_path(f, ".syncd/staging"), fx_count_one, 16, FTW_PHYS);
	return fx_count_state - 1;
}

/* --- the index --- */

static inline struct observe_result fx_scan(struct fixture *f)
{
	struct observe_options options = {.replica = f->r, .confirmed = true};
	struct scan_options scan = {.store = fx_store(f), .ignore = f->ignore};
	const struct observe_path all = {.path = ""};
	struct observe_result result = {0};

	OK(observe_run(&options, &scan, &all, 1, NULL, NULL, &result));
	return result;
}

/* false: there is none */
static inline bool fx_row(struct fixture *f, const char *path, struct row *ret)
{
	struct index_txn *t;
	int r;

	*ret = (struct row){0};
	OK(index_begin_read(replica_index(f->r), &t));
	r = index_get(t, path, ret);
	index_abort(t);
	assert_true(r == 0 || r == INDEX_ABSENT);
	return r == 0;
}

static inline bool fx_live(struct fixture *f, const char *path)
{
	struct row row;
	bool live = fx_row(f, path, &row) && row_live(&row);

	row_deinit(&row);
	return live;
}

static inline bool fx_tombstone(struct fixture *f, const char *path)
{
	struct row row;
	bool dead = fx_row(f, path, &row) && row_has_record(&row) && !row.record.live;

	row_deinit(&row);
	return dead;
}

static inline int fx_placed(struct fixture *f, const char *path)
{
	struct row row;
	int place = fx_row(f, path, &row) ? row.place : -1;

	row_deinit(&row);
	return place;
}

static inline void fx_ignore(struct fixture *f, const char *rules)
{
	fx_write(f, IGNORE_FILE_NAME, rules);
	f->options.ignore = f->ignore;
	fx_scan(f);
}

static inline int fx_add_intent(uint64_t batch, uint32_t number, const void *p, size_t n, void *data)
{
	(void)batch, (void)number, (void)p, (void)n;
	++*(unsigned *)data;
	return 0;
}

static inline unsigned fx_intents(struct fixture *f)
{
	struct index_txn *t;
	unsigned n = 0;

	OK(index_begin_read(replica_index(f->r), &t));
	OK(index_intents(t, fx_add_intent, &n));
	index_abort(t);
	return n;
}

/* --- the peer --- */

/* How the peer's version relates to ours. */
enum fx_relation { FX_AFTER, FX_CONCURRENT_WINS, FX_CONCURRENT_LOSES };

/* A file of that content in staging; *ret_name: heap. */
static inline void fx_stage(struct fixture *f, const char *text, struct content *ret, char **ret_name)
{
	struct chunk_tree_node *nodes = NULL;
	struct record state = {0};
	struct stamp stamp;
	size_t n = 0;
	int fd;

	assert_true(asprintf(ret_name, "test-%016llx", (unsigned long long)random_id()) > 0);
	OK(file_create(store_staging(fx_store(f)), *ret_name, 0600, &fd));
	OK(file_write(fd, text, strlen(text), 0));
	close(fd);
	OK(scan_look(fx_store(f), store_staging(fx_store(f)), *ret_name, &state, &stamp, &nodes, &n));
	assert_int_equal(n, 0);
	*ret = state.content;
	record_deinit(&state);
	scan_nodes_free(nodes, n);
}

static inline struct record *fx_their_record(struct fixture *f, const char *path, enum fx_relation relation)
{
	struct record *r = calloc(1, sizeof(*r));
	struct version_dot dot;
	struct row ours;

	assert_non_null(r);
	fx_row(f, path, &ours);
	if (relation == FX_CONCURRENT_LOSES) {
		dot.counter = 1;
	} else {
		f->counter += 1000;
		dot.counter = f->counter;
	}
	dot.inc = PEER_INC;
	if (relation == FX_AFTER && row_has_record(&ours))
		OK(version_vector_copy(&r->vv, &ours.record.vv));
	OK(version_vector_raise(&r->vv, dot, replica_lineage(f->r)));
	OK(version_dots_add(&r->dots, dot));
	row_deinit(&ours);
	return r;
}

static inline struct apply_item *fx_item(struct fixture *f, const char *path, struct record *theirs)
{
	struct apply_item *item = &f->items[f->n];

	assert_true(f->n < ITEMS_MAX);
	f->theirs[f->n++] = theirs;
	*item = (struct apply_item){.path = path, .theirs = theirs, .their_k = &f->their_k};
	return item;
}

static inline void fx_live_values(struct record *r, uint8_t kind, uint16_t mode)
{
	r->live = true;
	r->kind = kind;
	r->mode = mode;
	r->uid = getuid();
	r->gid = getgid();
	r->mtime_ns = INT64_C(1500000000) * CLOCK_NS_PER_S;
	OK(version_dots_copy(&r->adots, &r->dots));
	if (kind != RECORD_DIRECTORY)
		OK(version_dots_copy(&r->mdots, &r->dots));
}

static inline struct apply_item *fx_their_file(struct fixture *f, const char *path, const char *text, enum fx_relation relation)
{
	struct record *r = fx_their_record(f, path, relation);
	struct apply_item *item = fx_item(f, path, r);

	fx_live_values(r, RECORD_FILE, 0640);
	fx_stage(f, text, &r->content, &f->names[f->n - 1]);
	item->staged = f->names[f->n - 1];
	return item;
}

static inline struct apply_item *fx_their_symlink(struct fixture *f, const char *path, const char *target,
	enum fx_relation relation)
{
	struct record *r = fx_their_record(f, path, relation);

	fx_live_values(r, RECORD_SYMLINK, 0777);
	r->target = strdup(target);
	r->content.size = strlen(target);
	hash_bytes(store_algorithm(fx_store(f)), target, strlen(target), &r->content.root);
	return fx_item(f, path, r);
}

static inline struct apply_item *fx_their_directory(struct fixture *f, const char *path, uint16_t mode, enum fx_relation relation)
{
	struct record *r = fx_their_record(f, path, relation);

	fx_live_values(r, RECORD_DIRECTORY, mode);
	return fx_item(f, path, r);
}

static inline struct apply_item *fx_their_deletion(struct fixture *f, const char *path)
{
	return fx_item(f, path, fx_their_record(f, path, FX_AFTER));
}

/* The same state as ours, with other attributes. */
static inline struct apply_item *fx_their_touch(struct fixture *f, const char *path, uint16_t mode, int64_t mtime_ns)
{
	struct record *r = fx_their_record(f, path, FX_AFTER);
	struct version_dots dot = r->dots;
	struct row ours;

	assert_true(fx_row(f, path, &ours));
	r->dots = (struct version_dots){0};
	OK(version_dots_copy(&r->dots, &ours.record.dots));
	fx_live_values(r, ours.record.kind, mode);
	r->content = ours.record.content;
	r->target = ours.record.target ? strdup(ours.record.target) : NULL;
	r->mtime_ns = mtime_ns;
	OK(version_dots_copy(&r->adots, &dot));
	if (r->kind != RECORD_DIRECTORY)
		OK(version_dots_copy(&r->mdots, &dot));
	version_dots_deinit(&dot);
	row_deinit(&ours);
	return fx_item(f, path, r);
}

/* A file of ours with that content, mode 0640 and the mtime of fx_live_values was moved; where it is gone, its content came. */
static inline struct apply_item *fx_their_move(struct fixture *f, const char *from, const char *to, const char *text)
{
	struct apply_item *item;

	fx_their_deletion(f, from);
	item = fx_their_file(f, to, text, FX_AFTER);
	if (fx_live(f, from)) {
		OK(file_unlink(store_staging(fx_store(f)), item->staged));
		item->staged = NULL;
		item->move_from = from;
	}
	return item;
}

/* Apply what was collected; staged objects that were not consumed go, as their owner would do. */
static inline int fx_apply_raw(struct fixture *f)
{
	int r = apply_batch(&f->options, f->items, f->n);

	for (size_t k = 0; k < f->n; k++)
		if (f->items[k].staged && !f->items[k].consumed)
			(void)file_unlink(store_staging(fx_store(f)), f->items[k].staged);
	return r;
}

static inline void fx_apply(struct fixture *f)
{
	OK(fx_apply_raw(f));
	assert_int_equal(fx_intents(f), 0);
	assert_int_equal(fx_staging(f), 0);
}

/* After a batch: nothing of it looks like a user's doing. */
static inline void fx_quiet(struct fixture *f)
{
	struct observe_result r = fx_scan(f);

	assert_int_equal(r.events, 0);
}

#endif
