/*
 * tests/sim/world.h — several replicas in one process: real stores, scans, sessions and applies; no sockets, no threads.
 *
 *   site   a folder in a temporary place, with its replica
 *   wire   two sessions, and the bytes that are on their way between them
 *
 * world_run() does one random thing after the other: move a piece of random size, begin a job, run it, hand it back, scan. One
 * seed decides all of it, also what base/random gives (it is replaced here). fsync and its like do nothing: no power is lost
 * here. A check that fails says the seed, and leaves the folders. Includer: one .c file of a program; WORLD_STOP ends it.
 */
#ifndef TESTS_SIM_WORLD_H
#define TESTS_SIM_WORLD_H

#include <errno.h>
#include <fcntl.h>
#include <fts.h>
#include <ftw.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/random.h"
#include "merkle/path.h"
#include "tests/random.h"
#include "tests/sim/row_fault.h"
#include "tests/unit/where.h"
#include "tombstones/conflict.h"
#include "tombstones/observe.h"
#include "tombstones/purge.h"
#include "transfer/frame.h"
#include "transfer/session.h"

#ifndef WORLD_STOP
#define WORLD_STOP() exit(1)
#endif

#define WORLD_SITES_MAX 4
#define WORLD_WIRES_MAX 6
#define WORLD_STEPS_MAX 400000
#define WORLD_TRIES_MAX 10
#define WORLD_PIPE_BYTES 65536

/* --- chance: one stream for the world, one for the programs under test --- */

static uint64_t world_program_random;

void random_bytes(void *ret, size_t n)
{
	uint8_t *p = ret;

	while (n--)
		*p++ = (uint8_t)test_random(&world_program_random);
}

uint64_t random_id(void)
{
	return test_random(&world_program_random) | 1;
}

uint64_t random_below(uint64_t below)
{
	return below ? test_random(&world_program_random) % below : 0;
}

int fsync(int fd)
{
	(void)fd;
	return 0;
}

int fdatasync(int fd)
{
	(void)fd;
	return 0;
}

int syncfs(int fd)
{
	(void)fd;
	return 0;
}

/* A directory's mtime is the kernel's, and is sent along as a hint: the lengths of messages would be others in each run. */
int statx(int dirfd, const char *restrict path, int flags, unsigned mask, struct statx *restrict ret)
{
	int r = (int)syscall(SYS_statx, dirfd, path, flags, mask, ret);

	if (r == 0 && S_ISDIR(ret->stx_mode))
		ret->stx_mtime = (struct statx_timestamp){.tv_sec = 1500000000};
	return r;
}

/* --- the world --- */

struct wire;

struct site {
	struct world *world;
	char name; /* 'a', 'b', … */
	char root[220];
	struct replica *replica;
	struct ignore *ignore;
	bool dirty;   /* a session says that the disk is not as the index says */
	bool doubted; /* and that no stamp says what is there */
	bool broken;  /* an apply failed: recover */
	bool changed; /* the index was changed: the other sessions are to be told */
	struct observe_result seen; /* of the last scan */
	uint64_t unread; /* what it says of paths that are left out of rounds */
};

struct end {
	struct wire *wire;
	struct site *site;
	struct session *session;
	struct session_job *taken[SESSION_LANES], *ran[SESSION_LANES];
	bool greeted, opened; /* the host owes an answer */
	bool sends, takes;
	bool changed_by_us;
	unsigned told[APPLY_HELD + 1]; /* results */
	unsigned rounds;
	struct session_status status; /* at the end */
	char text[200];
};

struct wire {
	struct world *world;
	struct end end[2]; /* the client first */
	struct buf pipe[2]; /* from end i to the other */
	size_t taken[2];    /* of its first bytes, so many have arrived */
	uint64_t moved;	    /* bytes delivered */
	uint64_t cut_after; /* 0: never */
	uint64_t spoil_at;  /* 0: never; else the byte with that number is changed */
	size_t piece;	    /* pieces are up to this long, in the first 30,000 bytes */
	bool cut;
	/* A hostile peer: what end i says is taken apart into messages, and given to this, which writes what it likes. NULL: not. */
	void (*tamper)(struct wire *wire, int i, uint8_t type, const uint8_t *p, size_t n);
	struct frame_reader *reader[2];
	struct frame_writer *writer[2];
};

struct world {
	uint64_t seed, random;
	bool trace;
	char base[160];
	struct site sites[WORLD_SITES_MAX];
	size_t n_sites;
	struct wire *wires[WORLD_WIRES_MAX];
	size_t n_wires;
	int64_t grace_ns;
	bool refuses[WORLD_SITES_MAX][WORLD_SITES_MAX]; /* the first takes nothing from the second */
	int64_t user_ns; /* what users' files are dated: hashes, and so the lengths of messages, depend on it */
	/* Called now and then while sessions run, as a user who does not wait for them. NULL: nobody. */
	void (*meddle)(struct world *w, void *data);
	void *meddle_data;
	unsigned meddle_one_in;
};

static inline size_t world_below(struct world *w, size_t n)
{
	return n ? (size_t)(test_random(&w->random) % n) : 0;
}

static inline bool world_one_in(struct world *w, unsigned n)
{
	return n && world_below(w, n) == 0;
}

__attribute__((format(printf, 2, 3))) static inline void world_fail(struct world *w, const char *fmt, ...)
{
	va_list args;

	fprintf(stderr, "seed %" PRIu64 ": ", w->seed);
	va_start(args, fmt);
	vfprintf(stderr, fmt, args);
	va_end(args);
	fprintf(stderr, " (left in %s)\n", w->base);
	WORLD_STOP();
}

__attribute__((format(printf, 2, 3))) static inline void world_trace(struct world *w, const char *fmt, ...)
{
	va_list args;

	if (!w->trace)
		return;
	va_start(args, fmt);
	vfprintf(stderr, fmt, args);
	va_end(args);
	fputc('\n', stderr);
}

#define world_expect(w, what)                                                                                         \
	do {                                                                                                          \
		if (!(what))                                                                                          \
			world_fail(w, "%s:%d: expected: %s", __FILE__, __LINE__, #what);                                 \
	} while (0)
#define world_ok(w, call)                                                                                             \
	do {                                                                                                          \
		int world_result_ = (call);                                                                           \
		if (world_result_ != 0)                                                                               \
			world_fail(w, "%s:%d: %s: %d (%s)", __FILE__, __LINE__, #call, world_result_,                  \
				file_error_text(world_result_));                                                             \
	} while (0)

/* --- sites --- */

static inline void site_open(struct site *s)
{
	struct store_options options = {.create = true};
	struct store *store = NULL;
	uint64_t intents;

	world_ok(s->world, store_open(&store, s->root, &options));
	world_ok(s->world, replica_open(&s->replica, store));
	world_ok(s->world, apply_recover(s->replica, &intents));
}

static inline void site_close(struct site *s)
{
	replica_close(s->replica);
	s->replica = NULL;
}

static inline struct site *world_add(struct world *w)
{
	struct site *s = &w->sites[w->n_sites];

	*s = (struct site){.world = w, .name = (char)('a' + w->n_sites)};
	w->n_sites++;
	snprintf(s->root, sizeof(s->root), "%s/%c", w->base, s->name);
	if (mkdir(s->root, 0755) < 0)
		world_fail(w, "mkdir %s: %s", s->root, strerror(errno));
	world_ok(w, ignore_new(&s->ignore));
	site_open(s);
	return s;
}

static inline void world_begin(struct world *w, uint64_t seed, size_t sites)
{
	*w = (struct world){.seed = seed, .random = seed * 2 + 1, .user_ns = INT64_C(1600000000) * CLOCK_NS_PER_S};
	world_program_random = seed * 2;
	snprintf(w->base, sizeof(w->base), "%s/syncd-world-XXXXXX", where_memory());
	if (!mkdtemp(w->base)) {
		perror(w->base);
		exit(1);
	}
	while (w->n_sites < sites)
		world_add(w);
}

static inline int world_remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	(void)st;
	(void)ftw;
	if (type == FTW_DP || type == FTW_DNR)
		(void)chmod(path, 0700);
	return remove(path);
}

static inline void world_remove_tree(const char *path)
{
	nftw(path, world_remove_one, 32, FTW_DEPTH | FTW_PHYS | FTW_MOUNT);
}

static inline void world_end(struct world *w)
{
	for (size_t i = 0; i < w->n_sites; i++) {
		if (w->sites[i].replica)
			site_close(&w->sites[i]);
		ignore_free(w->sites[i].ignore);
	}
	world_remove_tree(w->base);
}

static inline void site_scan_confirmed(struct site *s, bool confirmed)
{
	struct observe_options options = {.replica = s->replica, .confirmed = confirmed};
	struct scan_options scan = {.store = replica_store(s->replica), .ignore = s->ignore};
	const struct observe_path all = {.path = "", .rehash_before_ns = s->doubted ? INT64_MAX : 0};

	s->dirty = s->doubted = false;
	s->seen = (struct observe_result){0};
	world_ok(s->world, observe_run(&options, &scan, &all, 1, NULL, NULL, &s->seen));
	if (s->seen.raced || s->seen.unsettled)
		s->dirty = true;
	if (s->seen.events) {
		s->changed = true;
		world_trace(s->world, "  %c scanned: %" PRIu64 " events, %" PRIu64 " deletions", s->name, s->seen.events, s->seen.deleted);
	}
}

static inline void site_scan(struct site *s)
{
	site_scan_confirmed(s, false);
}

static inline void site_recover(struct site *s)
{
	uint64_t intents;

	if (s->broken)
		world_ok(s->world, apply_recover(s->replica, &intents));
	s->broken = false;
}

static inline void site_root(struct site *s, struct hash *ret)
{
	struct index_txn *t = NULL;

	world_ok(s->world, index_begin_read(replica_index(s->replica), &t));
	world_ok(s->world, tree_root(t, TREE_LIVE, ret));
	index_abort(t);
}

static inline size_t site_exceptions(struct site *s)
{
	struct index_txn *t = NULL;
	struct knowledge k = {0};
	size_t n;

	world_ok(s->world, index_begin_read(replica_index(s->replica), &t));
	world_ok(s->world, replica_knowledge_read(t, &k));
	index_abort(t);
	n = k.n;
	knowledge_deinit(&k);
	return n;
}

static inline void site_trace_exceptions(struct site *s)
{
	struct index_txn *t = NULL;
	struct knowledge k = {0};

	if (!s->world->trace)
		return;
	world_ok(s->world, index_begin_read(replica_index(s->replica), &t));
	world_ok(s->world, replica_knowledge_read(t, &k));
	index_abort(t);
	for (size_t i = 0; i < k.n; i++)
		world_trace(s->world, "  %c: does not know all of %s", s->name, k.exceptions[i].path);
	knowledge_deinit(&k);
}

static inline int site_count_intent(uint64_t batch, uint32_t number, const void *p, size_t n, void *data)
{
	(void)batch;
	(void)number;
	(void)p;
	(void)n;
	++*(size_t *)data;
	return 0;
}

/* Between sessions: no intent, nothing in staging. */
static inline void site_expect_tidy(struct site *s)
{
	struct index_txn *t = NULL;
	size_t n = 0;
	char path[300];

	world_ok(s->world, index_begin_read(replica_index(s->replica), &t));
	world_ok(s->world, index_intents(t, site_count_intent, &n));
	index_abort(t);
	if (n)
		world_fail(s->world, "%c: %zu intents are left", s->name, n);
	snprintf(path, sizeof(path), "%s/.syncd/staging/.", s->root);
	if (access(path, X_OK) == 0) {
		char *argv[] = {path, NULL};
		FTS *fts = fts_open(argv, FTS_PHYSICAL | FTS_NOCHDIR, NULL);
		FTSENT *e;

		while (fts && (e = fts_read(fts)))
			if (e->fts_level > 0)
				world_fail(s->world, "%c: %s is left in staging", s->name, e->fts_name);
		fts_close(fts);
	}
}

/* --- what users do --- */

/* ROOT/path, in a ring of buffers. */
static inline const char *site_at(const struct site *s, const char *path)
{
	static char ring[8][4700];
	static unsigned next;
	char *at = ring[next++ % 8];

	snprintf(at, sizeof(ring[0]), "%s/%s", s->root, path);
	return at;
}

/* The kernel's own time would be another in each run. Two changes may bear one time. */
static inline void site_date(struct site *s, const char *path)
{
	struct timespec times[2] = {{.tv_nsec = UTIME_OMIT}};

	s->world->user_ns += (int64_t)world_below(s->world, 4) * 1234567891;
	times[1].tv_sec = (time_t)(s->world->user_ns / CLOCK_NS_PER_S);
	times[1].tv_nsec = (long)(s->world->user_ns % CLOCK_NS_PER_S);
	if (utimensat(AT_FDCWD, site_at(s, path), times, AT_SYMLINK_NOFOLLOW) < 0)
		world_fail(s->world, "utimensat %s: %s", path, strerror(errno));
}

static inline void site_write_bytes(struct site *s, const char *path, const void *p, size_t n)
{
	int fd = open(site_at(s, path), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);

	if (fd < 0 || write(fd, p, n) != (ssize_t)n)
		world_fail(s->world, "write %s: %s", path, strerror(errno));
	close(fd);
	site_date(s, path);
}

static inline void site_write(struct site *s, const char *path, const char *text)
{
	site_write_bytes(s, path, text, strlen(text));
}

static inline void site_mkdir(struct site *s, const char *path)
{
	if (mkdir(site_at(s, path), 0755) < 0)
		world_fail(s->world, "mkdir %s: %s", path, strerror(errno));
}

static inline void site_symlink(struct site *s, const char *path, const char *target)
{
	if (symlink(target, site_at(s, path)) < 0)
		world_fail(s->world, "symlink %s: %s", path, strerror(errno));
	site_date(s, path);
}

static inline void site_remove(struct site *s, const char *path)
{
	world_remove_tree(site_at(s, path));
}

static inline void site_rename(struct site *s, const char *from, const char *to)
{
	if (rename(site_at(s, from), site_at(s, to)) < 0)
		world_fail(s->world, "rename %s %s: %s", from, to, strerror(errno));
}

/* '-' a file, 'd', 'l', 'o' other, 0 nothing; nor is what a symlink on the way leads to. */
static inline char site_kind(const struct site *s, const char *path)
{
	char *at = (char *)site_at(s, path);
	struct stat st;

	for (char *slash = strchr(at + strlen(s->root) + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
		bool link;

		*slash = '\0';
		link = lstat(at, &st) == 0 && S_ISLNK(st.st_mode);
		*slash = '/';
		if (link)
			return 0;
	}
	if (lstat(at, &st) < 0)
		return 0;
	return S_ISREG(st.st_mode) ? '-' : S_ISDIR(st.st_mode) ? 'd' : S_ISLNK(st.st_mode) ? 'l' : 'o';
}

/* A file's text or a symlink's target, "" if there is neither; static. */
static inline const char *site_read(const struct site *s, const char *path)
{
	static char ring[4][4096];
	static unsigned next;
	char *text = ring[next++ % 4];
	ssize_t n = 0;
	int fd;

	if (site_kind(s, path) == 'l') {
		n = readlink(site_at(s, path), text, sizeof(ring[0]) - 1);
	} else if ((fd = open(site_at(s, path), O_RDONLY | O_NOFOLLOW | O_CLOEXEC)) >= 0) {
		n = read(fd, text, sizeof(ring[0]) - 1);
		close(fd);
	}
	text[n > 0 ? n : 0] = '\0';
	return text;
}

/* --- trees as text --- */

static inline int world_fts_order(const FTSENT **a, const FTSENT **b)
{
	return strcmp((*a)->fts_name, (*b)->fts_name);
}

static inline uint64_t world_sum_of(const char *path)
{
	static uint8_t bytes[1 << 16];
	uint64_t sum = 0;
	ssize_t n;
	int fd = open(path, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);

	while (fd >= 0 && (n = read(fd, bytes, sizeof(bytes))) > 0)
		sum = hash_fast(bytes, (size_t)n, sum);
	if (fd >= 0)
		close(fd);
	return sum;
}

/* A directory's mode counts where its record is materialised; an implied one's is its own business. */
static inline unsigned site_mode(struct site *s, const char *path, const struct stat *st)
{
	struct index_txn *t = NULL;
	struct row row = {0};
	unsigned mode = st->st_mode & 07777;

	if (!S_ISDIR(st->st_mode))
		return mode;
	world_ok(s->world, index_begin_read(replica_index(s->replica), &t));
	if (index_get(t, path, &row) != 0 || row.place != ROW_ON_DISK)
		mode = 0;
	row_deinit(&row);
	index_abort(t);
	return mode;
}

/* One line an object, in order; heap. */
static inline char *site_tree(struct site *s)
{
	char *argv[] = {s->root, NULL}, *text = NULL, target[1024];
	FTS *fts = fts_open(argv, FTS_PHYSICAL | FTS_NOCHDIR, world_fts_order);
	size_t skip = strlen(s->root) + 1, size;
	FILE *out = open_memstream(&text, &size);
	FTSENT *e;

	while (fts && (e = fts_read(fts))) {
		const char *path = e->fts_path + skip;
		const struct stat *st = e->fts_statp;
		ssize_t n;

		if (e->fts_level == 0 || e->fts_info == FTS_DP)
			continue;
		if (e->fts_level == 1 && strcmp(e->fts_name, ".syncd") == 0) {
			fts_set(fts, e, FTS_SKIP);
			continue;
		}
		fprintf(out, "%s %o", path, site_mode(s, path, st));
		if (S_ISDIR(st->st_mode)) {
			fputs(" dir\n", out);
		} else if (S_ISLNK(st->st_mode)) {
			n = readlink(e->fts_path, target, sizeof(target) - 1);
			fprintf(out, " -> %.*s\n", n > 0 ? (int)n : 0, target);
		} else {
			fprintf(out, " %lld bytes, sum %016" PRIx64 ", %lld.%09ld\n", (long long)st->st_size, world_sum_of(e->fts_path),
				(long long)st->st_mtim.tv_sec, st->st_mtim.tv_nsec);
		}
	}
	fts_close(fts);
	fclose(out);
	return text;
}

/* The trees on disk and the live roots. */
static inline bool sites_equal(struct site *a, struct site *b)
{
	char *x = site_tree(a), *y = site_tree(b);
	struct hash p, q;
	bool equal;

	site_root(a, &p);
	site_root(b, &q);
	equal = strcmp(x, y) == 0 && hash_equal(&p, &q);
	free(x);
	free(y);
	return equal;
}

static inline void sites_expect_equal(struct site *a, struct site *b)
{
	char *x, *y;
	size_t i, from = 0;

	if (sites_equal(a, b))
		return;
	x = site_tree(a);
	y = site_tree(b);
	world_trace(a->world, "--- %c\n%s--- %c\n%s", a->name, x, b->name, y);
	for (i = 0; x[i] && x[i] == y[i]; i++)
		if (x[i] == '\n')
			from = i + 1;
	if (strcmp(x, y) == 0)
		world_fail(a->world, "%c and %c have other roots for the same tree", a->name, b->name);
	else
		world_fail(a->world, "%c and %c differ from \"%.*s\", \"%.*s\" on", a->name, b->name, (int)strcspn(x + from, "\n"),
			x + from, (int)strcspn(y + from, "\n"), y + from);
	free(x);
	free(y);
}

/* --- an index and its disk --- */

/* When all is quiet: each row says what is on disk. (What is on disk without a row, a scan finds.) */
static inline void site_judge_rows(struct site *s)
{
	struct index_txn *t = NULL;
	struct index_cursor *c = NULL;
	int r;

	world_ok(s->world, index_begin_read(replica_index(s->replica), &t));
	world_ok(s->world, index_cursor_open(t, &c));
	for (r = index_cursor_seek(c, ""); r == 0; r = index_cursor_next(c)) {
		struct row row = {0};
		const char *fault;
		char *path = NULL;

		world_ok(s->world, index_cursor_get(c, &path, &row));
		fault = row_fault(replica_store(s->replica), t, path, &row, 1);
		if (fault)
			world_fail(s->world, "%c: %s %s", s->name, path, fault);
		free(path);
		row_deinit(&row);
	}
	world_expect(s->world, r == INDEX_ABSENT);
	index_cursor_close(c);
	index_abort(t);
}

/* Highest local sequence: it rises with each record that is written. */
static inline uint64_t site_sequence(struct site *s)
{
	struct index_txn *t = NULL;
	struct index_counts counts;

	world_ok(s->world, index_begin_read(replica_index(s->replica), &t));
	world_ok(s->world, index_counts(t, &counts));
	index_abort(t);
	return counts.head_seq;
}

/* --- sessions --- */

static inline void on_opened(struct session *s, const struct message_open *open, void *data)
{
	(void)s;
	(void)open;
	((struct end *)data)->opened = true;
}

static inline void on_greeted(struct session *s, bool rescan, void *data)
{
	(void)s;
	(void)rescan;
	((struct end *)data)->greeted = true;
}

static inline void on_tell(struct session *s, const char *path, enum decide_action action, enum apply_result result, int error,
	void *data)
{
	struct end *e = data;

	(void)s;
	e->told[result]++;
	world_trace(e->site->world, "  %c: %s: action %d, %s, %d", e->site->name, path, (int)action, apply_result_name(result), error);
}

static inline void on_dirty(struct session *s, const char *path, void *data)
{
	(void)s;
	(void)path;
	((struct end *)data)->site->dirty = true;
}

static inline void on_doubted(struct session *s, const char *path, void *data)
{
	struct site *site = ((struct end *)data)->site;

	(void)s;
	(void)path;
	site->dirty = site->doubted = true;
}

static inline void on_changed(struct session *s, void *data)
{
	struct end *e = data;

	(void)s;
	e->changed_by_us = true;
}

static inline void on_round_over(struct session *s, bool in_sync, void *data)
{
	struct end *e = data;

	(void)s;
	e->rounds++;
	world_trace(e->site->world, "  %c: round %u over, %s", e->site->name, e->rounds, in_sync ? "in sync" : "not in sync");
	site_trace_exceptions(e->site);
}

static inline void on_broken(struct session *s, int error, void *data)
{
	(void)s;
	(void)error;
	((struct end *)data)->site->broken = true;
}

static inline uint64_t on_unread(struct session *s, void *data)
{
	(void)s;
	return ((struct end *)data)->site->unread;
}

static inline struct session_options end_options(struct end *e, bool client)
{
	return (struct session_options){
		.client = client,
		.replica = client ? e->site->replica : NULL,
		.ignore = e->site->ignore,
		.sends = e->sends,
		.takes = e->takes,
		.preserve_owner = true,
		.grace_ns = e->site->world->grace_ns,
		.name = e->site->name == 'a' ? "a" : "other",
		.open = {.place = (char *)"/x", .sends = 1, .takes = 1},
		.host = {
			.opened = on_opened,
			.greeted = on_greeted,
			.tell = on_tell,
			.dirty = on_dirty,
			.doubted = on_doubted,
			.changed = on_changed,
			.round_over = on_round_over,
			.unread = on_unread,
			.broken = on_broken,
			.data = e,
		},
	};
}

struct wire_options {
	bool live;
	bool push, pull; /* as seen by the client; neither: two-way, but for what the world's sites refuse */
	bool confirmed;	 /* on both sides */
	const char *address; /* that the client knows of the server; NULL: its name */
	bool nowhere;	 /* it knows none */
	size_t ahead;	 /* bytes that may lie before others, in the output, or asked for; 0: as many as usual */
};

static inline bool site_takes(const struct site *s, const struct site *from)
{
	return !s->world->refuses[s - s->world->sites][from - s->world->sites];
}

static inline struct wire *wire_new(struct world *w, struct site *client, struct site *server, const struct wire_options *o)
{
	struct wire *wire = calloc(1, sizeof(*wire));

	if (!wire)
		abort();
	wire->world = w;
	for (int i = 0; i < 2; i++) {
		struct end *e = &wire->end[i];
		struct session_options options;

		e->wire = wire;
		e->site = i ? server : client;
		e->sends = site_takes(i ? client : server, e->site) && !(o && (i ? o->push : o->pull));
		e->takes = site_takes(e->site, i ? client : server) && !(o && (i ? o->pull : o->push));
		options = end_options(e, i == 0);
		options.live = o && o->live;
		options.confirmed = o && o->confirmed;
		options.address = i || (o && o->nowhere) ? NULL : o && o->address ? o->address : (char[]){server->name, '\0'};
		options.output_high = options.window_bytes = o ? o->ahead : 0;
		world_ok(w, session_new(&e->session, &options));
	}
	wire->piece = (size_t[]){7, 300, 5000, WORLD_PIPE_BYTES}[world_below(w, 4)];
	w->wires[w->n_wires++] = wire;
	return wire;
}

static inline enum session_state end_state(const struct end *e)
{
	struct session_status st;

	session_status(e->session, &st);
	return st.state;
}

static inline bool end_busy(const struct end *e)
{
	for (unsigned lane = 0; lane < SESSION_LANES; lane++)
		if (e->taken[lane] || e->ran[lane])
			return true;
	return false;
}

static inline void wire_cut(struct wire *wire)
{
	if (wire->cut)
		return;
	wire->cut = true;
	world_trace(wire->world, "  cut after %" PRIu64 " bytes", wire->moved);
	for (int i = 0; i < 2; i++) {
		buf_clear(&wire->pipe[i]);
		wire->taken[i] = 0;
		session_input_end(wire->end[i].session);
	}
}

static inline size_t piece_of(struct wire *wire, size_t n)
{
	size_t most = wire->moved > 30000 ? WORLD_PIPE_BYTES : wire->piece;

	return 1 + world_below(wire->world, n < most ? n : most);
}

static inline void wire_tamper(struct wire *wire,
	void (*tamper)(struct wire *wire, int i, uint8_t type, const uint8_t *p, size_t n))
{
	wire->tamper = tamper;
	for (int i = 0; i < 2; i++) {
		frame_put_preface(&wire->pipe[i]);
		world_ok(wire->world, frame_reader_new(&wire->reader[i], message_max_bytes));
		world_ok(wire->world, frame_writer_new(&wire->writer[i], 3));
	}
}

static inline void tamper_with(struct wire *wire, int i, const uint8_t *p, size_t n)
{
	const uint8_t *payload;
	size_t length;
	uint8_t type;

	world_ok(wire->world, frame_reader_feed(wire->reader[i], p, n));
	while (frame_read(wire->reader[i], &type, &payload, &length) == 0)
		wire->tamper(wire, i, type, payload, length);
}

static inline size_t pipe_bytes(const struct wire *wire, int i)
{
	return wire->pipe[i].len - wire->taken[i];
}

static inline bool move_to_pipe(struct wire *wire, int i)
{
	struct session *s = wire->end[i].session;
	size_t n, used = pipe_bytes(wire, i);
	const uint8_t *p = session_output(s, &n);

	if (!n || used >= WORLD_PIPE_BYTES || wire->cut)
		return false;
	if (n > WORLD_PIPE_BYTES - used)
		n = WORLD_PIPE_BYTES - used;
	n = piece_of(wire, n);
	if (wire->tamper)
		tamper_with(wire, i, p, n);
	else
		put_bytes(&wire->pipe[i], p, n);
	session_output_consumed(s, n);
	return true;
}

static inline bool move_to_peer(struct wire *wire, int i)
{
	struct session *to = wire->end[!i].session;
	struct buf *pipe = &wire->pipe[i];
	size_t n = pipe_bytes(wire, i);
	uint8_t *piece, *first = pipe->data + wire->taken[i];

	if (!n || wire->cut)
		return false;
	n = piece_of(wire, n);
	if (wire->cut_after && wire->moved + n > wire->cut_after)
		n = (size_t)(wire->cut_after - wire->moved);
	if (wire->spoil_at > wire->moved && wire->spoil_at <= wire->moved + n)
		first[wire->spoil_at - wire->moved - 1] ^= (uint8_t)(1 + world_below(wire->world, 255));
	piece = malloc(n ? n : 1); /* its own memory, so that a sanitizer sees the first byte too far */
	if (!piece)
		abort();
	memcpy(piece, first, n);
	wire->taken[i] += n;
	if (wire->taken[i] == pipe->len || wire->taken[i] >= WORLD_PIPE_BYTES) {
		buf_consume(pipe, wire->taken[i]);
		wire->taken[i] = 0;
	}
	wire->moved += n;
	if (n && end_state(&wire->end[!i]) != SESSION_ENDED)
		session_input(to, piece, n);
	free(piece);
	if (wire->cut_after && wire->moved == wire->cut_after)
		wire_cut(wire);
	return true;
}

static inline bool take_job(struct end *e)
{
	struct session_job *job = session_next_job(e->session);

	if (!job)
		return false;
	for (unsigned lane = 0; lane < SESSION_LANES; lane++)
		if (!e->taken[lane]) { /* which place does not matter: at most one of each lane is out */
			e->taken[lane] = job;
			return true;
		}
	world_fail(e->site->world, "more jobs than lanes");
	return false;
}

static inline bool run_job(struct end *e, unsigned lane)
{
	if (!e->taken[lane])
		return false;
	for (unsigned i = 0; i < SESSION_LANES; i++)
		if (!e->ran[i]) {
			session_job_run(e->taken[lane]);
			e->ran[i] = e->taken[lane];
			e->taken[lane] = NULL;
			return true;
		}
	return false;
}

static inline bool finish_job(struct end *e, unsigned lane)
{
	struct session_job *job = e->ran[lane];

	if (!job)
		return false;
	e->ran[lane] = NULL;
	session_job_done(e->session, job);
	return true;
}

/* What the host has to do for its session. */
static inline bool serve_host(struct end *e)
{
	if (e->opened) {
		e->opened = false;
		session_attach(e->session, e->site->replica, e->site->ignore, e->sends, e->takes);
		return true;
	}
	if (e->greeted) {
		e->greeted = false;
		if (!e->site->broken)
			site_scan(e->site);
		session_ready(e->session);
		return true;
	}
	if (e->site->dirty && !e->site->broken) {
		site_scan(e->site);
		return true;
	}
	return false;
}

/* A side that is over, with all written and no job out, closes; the other reads that after all else. */
static inline bool hang_up(struct wire *wire, int i)
{
	struct end *e = &wire->end[i], *other = &wire->end[!i];
	size_t n;

	session_output(e->session, &n);
	if (wire->cut || end_state(e) != SESSION_ENDED || n || end_busy(e) || pipe_bytes(wire, i) ||
			end_state(other) == SESSION_ENDED)
		return false;
	session_input_end(other->session);
	return true;
}

/* Tell sessions what others did to their replica. */
static inline bool spread_changes(struct world *w)
{
	bool any = false;

	for (size_t i = 0; i < w->n_wires; i++)
		for (int j = 0; j < 2; j++) {
			struct end *e = &w->wires[i]->end[j];
			bool ours = e->changed_by_us;

			e->changed_by_us = false;
			if (!ours)
				continue;
			any = true;
			for (size_t k = 0; k < w->n_wires; k++)
				for (int l = 0; l < 2; l++) {
					struct end *other = &w->wires[k]->end[l];

					if (other != e && other->site == e->site)
						session_changed(other->session);
				}
		}
	for (size_t i = 0; i < w->n_sites; i++) {
		if (!w->sites[i].changed)
			continue;
		w->sites[i].changed = false;
		any = true;
		for (size_t k = 0; k < w->n_wires; k++)
			for (int l = 0; l < 2; l++)
				if (w->wires[k]->end[l].site == &w->sites[i])
					session_changed(w->wires[k]->end[l].session);
	}
	return any;
}

/* One thing of this wire; false if that kind of thing is not to be done now. */
static inline bool wire_step(struct wire *wire, size_t what)
{
	int i = what & 1;
	struct end *e = &wire->end[i];

	switch (what >> 1) {
	case 0:
	case 1:
		return move_to_pipe(wire, i);
	case 2:
	case 3:
		return move_to_peer(wire, i);
	case 4:
		return take_job(e);
	case 5:
	case 6:
	case 7:
		return run_job(e, (unsigned)(what >> 1) - 5);
	case 8:
	case 9:
	case 10:
		return finish_job(e, (unsigned)(what >> 1) - 8);
	case 11:
		return serve_host(e);
	case 12:
		return hang_up(wire, i);
	}
	return false;
}

#define WIRE_STEPS 26

/* Until nothing is left to do: sessions are over, or live and quiet. */
static inline void world_run(struct world *w)
{
	for (unsigned steps = 0;; steps++) {
		size_t total = w->n_wires * WIRE_STEPS, first = world_below(w, total);
		bool done = spread_changes(w);

		if (steps > WORLD_STEPS_MAX)
			world_fail(w, "no end in sight");
		if (w->meddle && world_one_in(w, w->meddle_one_in)) {
			w->meddle(w, w->meddle_data);
			done = true;
		}
		for (size_t i = 0; i < total && !done; i++) {
			size_t what = (first + i) % total;

			done = wire_step(w->wires[what / WIRE_STEPS], what % WIRE_STEPS);
		}
		if (!done)
			return;
	}
}

static inline void wire_free(struct wire *wire)
{
	struct world *w = wire->world;

	for (size_t i = 0; i < w->n_wires; i++)
		if (w->wires[i] == wire)
			w->wires[i] = w->wires[--w->n_wires];
	for (int i = 0; i < 2; i++) {
		struct end *e = &wire->end[i];

		session_free(e->session);
		site_recover(e->site);
		buf_deinit(&wire->pipe[i]);
		frame_reader_free(wire->reader[i]);
		frame_writer_free(wire->writer[i]);
	}
	free(wire);
}

static inline void wire_note(struct wire *wire)
{
	for (int i = 0; i < 2; i++) {
		struct end *e = &wire->end[i];

		session_status(e->session, &e->status);
		snprintf(e->text, sizeof(e->text), "%s", e->status.text);
		e->status.text = e->text;
		e->status.peer_name = e->status.peer_version = "";
		if (e->status.failed)
			world_trace(wire->world, "  %c: failed: %d %s", e->site->name, e->status.error, e->text);
	}
}

static inline bool wire_failed(const struct wire *wire, enum message_fail_code code)
{
	return wire->end[0].status.peer_code == code && wire->end[1].status.peer_code == code;
}

/* The two are to connect again soon: one of them has come to another folder id, through a third. */
static inline bool wire_busy(const struct wire *wire)
{
	return wire_failed(wire, MESSAGE_FAIL_BUSY);
}

/* A whole session, as `syncctl reconcile` does; *ret (may be NULL) as it was at the end. */
static inline void world_sync_with(struct world *w, struct site *client, struct site *server, const struct wire_options *o,
	uint64_t cut_after, struct wire *ret)
{
	struct wire *wire = NULL;

	for (int tries = 0; tries < WORLD_TRIES_MAX; tries++) {
		wire = wire_new(w, client, server, o);
		world_trace(w, "session %c %c", client->name, server->name);
		wire->cut_after = cut_after;
		world_run(w);
		wire_note(wire);
		if (cut_after || !wire_busy(wire) || tries + 1 == WORLD_TRIES_MAX)
			break;
		wire_free(wire);
	}
	for (int i = 0; i < 2; i++)
		if (wire->end[i].status.state != SESSION_ENDED)
			world_fail(w, "the session of %c stands still in state %d", wire->end[i].site->name,
				(int)wire->end[i].status.state);
	if (!cut_after)
		for (int i = 0; i < 2; i++)
			if (wire->end[i].status.failed)
				world_fail(w, "the session of %c failed: %s (%d)", wire->end[i].site->name, wire->end[i].text,
					wire->end[i].status.error);
	if (ret)
		*ret = *wire;
	wire_free(wire);
	site_expect_tidy(client);
	site_expect_tidy(server);
}

/* Connect those again that asked for it. Two pairs out of four may have become folders at the same time, so that two who were
 * not the first to greet each other refuse, until they have heard from the others. */
static inline void live_again(struct world *w, struct wire **wires, size_t n, const struct wire_options *live)
{
	bool again = true;

	for (int tries = 0; again && tries < WORLD_TRIES_MAX; tries++) {
		again = false;
		for (size_t i = 0; i < n; i++) /* two that are quiet may both have followed a third */
			for (int j = 0; j < 2; j++)
				session_tick(wires[i]->end[j].session, clock_monotonic_ns());
		world_run(w);
		for (size_t i = 0; i < n; i++) {
			struct site *client = wires[i]->end[0].site, *server = wires[i]->end[1].site;

			wire_note(wires[i]);
			if (wires[i]->cut || !(wire_busy(wires[i]) ||
						     (w->n_sites > 3 && wire_failed(wires[i], MESSAGE_FAIL_FOLDER_ID))))
				continue;
			wire_free(wires[i]);
			wires[i] = wire_new(w, client, server, live);
			again = true;
		}
		world_run(w);
	}
}

/* Nobody refuses anything. */
static inline bool world_two_way(const struct world *w)
{
	for (size_t i = 0; i < w->n_sites; i++)
		for (size_t j = 0; j < w->n_sites; j++)
			if (w->refuses[i][j])
				return false;
	return true;
}

/* Live sessions between all sites, until nothing happens any more: all are equal then, and after the periodic check no
 * exceptions are left. Then they are ended in order. cut_one: one of them is cut somewhere on the way. */
static inline void world_live(struct world *w, bool cut_one)
{
	const struct wire_options live = {.live = true};
	struct wire *wires[WORLD_WIRES_MAX];
	bool whole = world_two_way(w) && !cut_one;
	size_t n = 0;

	world_trace(w, "live");
	for (size_t i = 0; i < w->n_sites; i++)
		for (size_t j = 0; j < i; j++) {
			struct site *a = &w->sites[i], *b = &w->sites[j];

			if (site_takes(a, b) || site_takes(b, a))
				wires[n++] = world_one_in(w, 2) ? wire_new(w, a, b, &live) : wire_new(w, b, a, &live);
		}
	if (cut_one && n)
		wires[world_below(w, n)]->cut_after = 1 + world_below(w, 10000);
	world_run(w);
	live_again(w, wires, n, &live);
	w->meddle = NULL;
	for (size_t i = 0; i < w->n_sites; i++)
		site_scan(&w->sites[i]);
	world_run(w);
	for (size_t i = 1; i < w->n_sites && whole; i++)
		sites_expect_equal(&w->sites[0], &w->sites[i]);
	for (size_t i = 0; i < n; i++) /* the periodic check, which lifts exceptions, too */
		session_check(wires[i]->end[world_below(w, 2)].session);
	world_run(w);
	for (size_t i = 0; i < w->n_sites && whole; i++)
		if (site_exceptions(&w->sites[i]))
			world_fail(w, "%c: the periodic check leaves exceptions", w->sites[i].name);
	for (size_t i = 0; i < n; i++) {
		wire_note(wires[i]);
		for (int j = 0; j < 2; j++)
			if (!wires[i]->cut && wires[i]->end[j].status.state != SESSION_LIVE)
				world_fail(w, "the live session of %c is in state %d: %s", wires[i]->end[j].site->name,
					(int)wires[i]->end[j].status.state, wires[i]->end[j].text);
	}
	for (size_t i = 0; i < n; i++)
		session_finish(wires[i]->end[world_below(w, 2)].session);
	world_run(w);
	for (size_t i = 0; i < n; i++) {
		wire_note(wires[i]);
		for (int j = 0; j < 2; j++) {
			const struct session_status *st = &wires[i]->end[j].status;

			if (st->state != SESSION_ENDED || (st->failed && !wires[i]->cut))
				world_fail(w, "the live session of %c did not end in order: %s", wires[i]->end[j].site->name,
					wires[i]->end[j].text);
		}
	}
	while (n)
		wire_free(wires[--n]);
	for (size_t i = 0; i < w->n_sites; i++)
		site_expect_tidy(&w->sites[i]);
}

static inline void world_sync(struct world *w, struct site *client, struct site *server, struct wire *ret)
{
	world_sync_with(w, client, server, NULL, 0, ret);
}

#endif
