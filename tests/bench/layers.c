/*
 * tests/bench/layers.c — each layer alone, through its header, beside a floor where there is one.
 *
 *   layers small|full     each measurement is a line of JSON: {"tool", "rate", "unit", "of_floor"}; of_floor is the rate divided by
 *                         the floor's. They are made once; bench.py takes medians.
 *   layers walk DIR       look at all below it with one stat each, and read all files: the floor of a scan
 *
 * Works in a directory of its own in $TMPDIR, that it removes.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <openssl/evp.h>

#include "base/clock.h"
#include "base/pool.h"
#include "merkle/diff.h"
#include "tests/random.h"
#include "transfer/apply.h"
#include "transfer/frame.h"
#include "transfer/message.h"
#include "transfer/stage.h"

#define MIB (1 << 20)
#define READ_BYTES (256 * 1024)
#define FOLDER_ID UINT64_C(0x5eed)
#define INCARNATION UINT64_C(0xa1b2c3d4e5f60718)
#define PEER_REPLICA 42
#define SMALL_BYTES 200
#define PER_DIRECTORY 500

static void must(int r, const char *what)
{
	if (r == 0)
		return;
	fprintf(stderr, "layers: %s: %s\n", what, file_error_text(r));
	exit(1);
}
#define MUST(e) must((e), #e)

/* --- what is told --- */

/* What one thread does without waiting is timed by what it used: others on the machine make less of a difference. */
static int64_t used_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
	return t.tv_sec * CLOCK_NS_PER_S + t.tv_nsec;
}

/* floor: a rate; 0 where there is none */
static double tell_rate(const char *tool, double amount, int64_t took_ns, const char *unit, double floor)
{
	double rate = amount * CLOCK_NS_PER_S / (double)took_ns;

	printf("{\"tool\": \"%s\", \"rate\": %.1f, \"unit\": \"%s\"", tool, rate, unit);
	if (floor > 0)
		printf(", \"of_floor\": %.3f", rate / floor);
	puts("}");
	fflush(stdout);
	return rate;
}

static double tell(const char *tool, double amount, int64_t began_ns, const char *unit, double floor)
{
	return tell_rate(tool, amount, clock_monotonic_ns() - began_ns, unit, floor);
}

static double tell_used(const char *tool, double amount, int64_t began_ns, const char *unit, double floor)
{
	return tell_rate(tool, amount, used_ns() - began_ns, unit, floor);
}

/* --- contents --- */

/* Half of it noise, half words: neither all nor nothing of it compresses. */
static uint8_t *make_content(size_t n)
{
	uint8_t *p = malloc(n);
	uint64_t state = 1;

	if (!p)
		must(-ENOMEM, "content");
	for (size_t i = 0; i + 8 <= n; i += 8) {
		uint64_t r = test_random(&state);

		if (i / 4096 % 2)
			r = UINT64_C(0x6162636465666768) + (r & 0x0f0f);
		memcpy(p + i, &r, sizeof(r));
	}
	return p;
}

static double bench_chunker(const uint8_t *p, size_t n, uint8_t bits)
{
	char name[40];
	int64_t began = used_ns();

	for (size_t at = 0; at < n;)
		at += chunker_cut(p + at, n - at, bits, true);
	snprintf(name, sizeof(name), "chunker, 2^%u", bits);
	return tell_used(name, (double)n / MIB, began, "MiB/s", 0);
}

/* libcrypto's own, called as rarely as can be */
static double bench_libcrypto(const uint8_t *p, size_t n)
{
	int64_t began = used_ns();
	uint8_t out[EVP_MAX_MD_SIZE];

	must(EVP_Digest(p, n, out, NULL, EVP_sha256(), NULL) == 1 ? 0 : -EIO, "SHA-256");
	return tell_used("SHA-256 of libcrypto", (double)n / MIB, began, "MiB/s", 0);
}

/* In pieces of the size that chunks of a large file have. */
static double bench_hash(enum hash_algorithm algorithm, const uint8_t *p, size_t n, size_t piece, double floor)
{
	char name[60];
	struct hash h;
	int64_t began = used_ns();

	for (size_t at = 0; at < n; at += piece)
		hash_bytes(algorithm, p + at, n - at < piece ? n - at : piece, &h);
	snprintf(name, sizeof(name), "hash, %s, %zu KiB at a time", hash_algorithm_name(algorithm), piece / 1024);
	return tell_used(name, (double)n / MIB, began, "MiB/s", algorithm == HASH_SHA256 ? floor : 0);
}

static int ignore_chunk(const struct chunk *chunk, const uint8_t *bytes, void *data)
{
	(void)chunk, (void)bytes, (void)data;
	return 0;
}

static void bench_file(const char *name, int fd, size_t n, uint8_t bits, enum hash_algorithm algorithm, struct pool *pool, double floor)
{
	const struct chunker_file file = {.fd = fd, .size = n, .bits = bits, .algorithm = algorithm, .pool = pool};
	int64_t began = pool ? clock_monotonic_ns() : used_ns();

	MUST(chunker_run_file(&file, ignore_chunk, NULL));
	(pool ? tell : tell_used)(name, (double)n / MIB, began, "MiB/s", floor);
}

static void bench_read(int fd, size_t n)
{
	uint8_t *p = malloc(READ_BYTES);
	int64_t began = clock_monotonic_ns();
	size_t got;

	for (size_t at = 0; p && at < n; at += READ_BYTES)
		MUST(file_read(fd, p, READ_BYTES, at, &got));
	free(p);
	tell("read the file", (double)n / MIB, began, "MiB/s", 0);
}

static void bench_content(int dir, size_t n)
{
	uint8_t bits = CHUNK_BITS_MIN + 2;
	uint8_t *p = make_content(n);
	enum hash_algorithm usual = hash_algorithm_usual();
	double cut, sha, hash, chunk_sha;
	struct pool *pool;
	int fd;

	bench_chunker(p, n, CHUNK_BITS_MAX);
	cut = bench_chunker(p, n, bits);
	sha = bench_libcrypto(p, n);
	bench_hash(HASH_SHA256, p, n, 4096, sha);
	chunk_sha = bench_hash(HASH_SHA256, p, n, (size_t)1 << bits, sha);
	hash = bench_hash(HASH_BLAKE2B, p, n, (size_t)1 << bits, 0);
	bench_hash(HASH_XXH3, p, n, (size_t)1 << bits, 0);
	if (usual == HASH_SHA256)
		hash = chunk_sha;
	MUST(file_create(dir, "content", 0600, &fd));
	MUST(file_write(fd, p, n, 0));
	free(p);
	bench_read(fd, n);
	bench_file("chunk and hash a file, one core", fd, n, bits, HASH_SHA256, NULL, 1 / (1 / cut + 1 / chunk_sha));
	MUST(pool_new(&pool, 2));
	bench_file("chunk and hash a file, two cores", fd, n, bits, HASH_SHA256, pool, sha);
	if (usual != HASH_SHA256) {
		bench_file("chunk and hash by this machine's hash, one core", fd, n, bits, usual, NULL, 1 / (1 / cut + 1 / hash));
		bench_file("chunk and hash by this machine's hash, two cores", fd, n, bits, usual, pool, sha);
	}
	pool_free(pool);
	close(fd);
	(void)file_unlink(dir, "content");
}

/* --- records --- */

static void make_path(char *ret, size_t n, size_t i)
{
	snprintf(ret, n, "directory-%03zu/some/file-%06zu.txt", i / PER_DIRECTORY, i);
}

static void live_file(struct record *r, uint64_t i, uint64_t counter)
{
	const struct version_dot dot = {INCARNATION, counter};

	*r = (struct record){.live = true, .kind = RECORD_FILE, .mode = 0644, .mtime_ns = INT64_C(1700000000123456789) + (int64_t)i};
	r->content = (struct content){.size = SMALL_BYTES, .chunk_bits = CHUNK_BITS_MIN};
	hash_bytes(HASH_XXH3, &i, sizeof(i), &r->content.root);
	MUST(version_vector_raise(&r->vv, dot, NULL));
	MUST(version_dots_add(&r->dots, dot));
	MUST(version_dots_add(&r->adots, dot));
	MUST(version_dots_add(&r->mdots, dot));
}

static void put_file(struct index_txn *w, size_t i, uint64_t counter)
{
	struct row row = {.place = ROW_ON_DISK, .recorded_ns = INT64_C(1700000001000000000)};
	char path[64];

	live_file(&row.record, i + counter, counter);
	row.stamp = (struct stamp){.ino = 5000000 + i, .size = SMALL_BYTES, .mtime_ns = row.record.mtime_ns, .ctime_ns = row.record.mtime_ns, .mode = 0644, .nlink = 1};
	make_path(path, sizeof(path), i);
	MUST(index_put(w, path, &row));
	row_deinit(&row);
}

/* n files in path order, in batches as a scan makes them; then `ret` is open. */
static void make_index(int top, const char *name, size_t n, bool told, struct index **ret)
{
	struct index_txn *w;
	int64_t began, committing = 0;
	int dir;

	MUST(file_mkdir(top, name, 0700));
	MUST(file_open_directory_at(top, name, &dir));
	MUST(index_open(ret, dir, true));
	close(dir);
	MUST(index_begin_write(*ret, &w));
	MUST(index_set_key(w, FOLDER_ID, HASH_SHA256));
	MUST(index_commit(&w));
	began = clock_monotonic_ns();
	for (size_t i = 0; i < n;) {
		int64_t at;

		MUST(index_begin_write(*ret, &w));
		for (size_t end = i + 1000; i < n && i < end; i++)
			put_file(w, i, i + 1);
		at = clock_monotonic_ns();
		MUST(index_commit(&w));
		committing += clock_monotonic_ns() - at;
	}
	if (told) {
		tell("index, insert and commit by 1,000", (double)n, began, "records/s", 0);
		tell("index, of that: insert", (double)n, began + committing, "records/s", 0);
		tell("index, of that: commit by 1,000", (double)n, clock_monotonic_ns() - committing, "records/s", 0);
	}
}

static void bench_iterate(struct index *x, size_t n)
{
	struct index_cursor *c;
	struct index_txn *t;
	struct path_key key;
	struct hash hash;
	char path[64];
	bool live;
	int r;
	int64_t began = used_ns();

	MUST(index_begin_read(x, &t));
	MUST(index_cursor_open(t, &c));
	for (r = index_cursor_seek(c, ""); r == 0; r = index_cursor_next(c)) {
		struct row row = {0};
		char *at = NULL;

		MUST(index_cursor_get(c, &at, &row));
		free(at);
		row_deinit(&row);
	}
	tell_used("index, iterate", (double)n, began, "records/s", 0);
	began = used_ns();
	for (r = index_cursor_seek(c, ""); r == 0; r = index_cursor_next(c))
		if (!index_cursor_peek(c, &key, &hash, &live))
			must(-EIO, "peek");
	tell_used("index, iterate over keys and hashes", (double)n, began, "records/s", 0);
	began = used_ns();
	for (size_t i = 0; i < n; i++) {
		struct row row = {0};

		make_path(path, sizeof(path), i * 7919 % n);
		MUST(index_get(t, path, &row));
		row_deinit(&row);
	}
	tell_used("index, get one", (double)n, began, "records/s", 0);
	index_cursor_close(c);
	index_abort(t);
}

static int ignore_path(const char *path, void *data)
{
	(void)path, (void)data;
	return 0;
}

/* Walk `ours` against `theirs`; returns how many differ. */
static size_t compare(struct index *ours, struct index *theirs, size_t n)
{
	struct index_txn *a, *b;
	struct diff_range range;
	struct diff *d;
	size_t found = 0;

	MUST(index_begin_read(ours, &a));
	MUST(index_begin_read(theirs, &b));
	MUST(diff_new(&d, 1));
	diff_expect(d, n, 0);
	MUST(diff_start(d, true, false));
	while (diff_next(d, &range) == 0) {
		struct diff_entry *entries = NULL;
		struct diff_found differ = {0};
		struct path_key from;
		size_t n_entries;
		bool cut;

		MUST(diff_answer(b, &range, 1, &entries, &n_entries, &cut, &from));
		MUST(diff_learn(d, a, &range, entries, n_entries, cut, &from, &differ));
		MUST(diff_resolve(b, &range, 1, differ.theirs, differ.n_theirs, ignore_path, NULL));
		found += differ.n_theirs;
		diff_found_deinit(&differ);
		free(entries);
	}
	diff_free(d);
	index_abort(b);
	index_abort(a);
	return found;
}

static void change_one(struct index *x, size_t i, uint64_t counter)
{
	struct index_txn *w;

	MUST(index_begin_write(x, &w));
	put_file(w, i, counter);
	MUST(index_commit(&w));
}

static void bench_index(int top, size_t n)
{
	struct index *ours, *theirs;
	int64_t began;

	make_index(top, "ours", n, true, &ours);
	make_index(top, "theirs", n, false, &theirs);
	bench_iterate(ours, n);
	began = clock_monotonic_ns();
	for (size_t i = 0; i < 20; i++)
		change_one(ours, n / 20 * i, n + i + 1);
	tell("index, change one and commit", 20, began, "commits/s", 0);
	began = used_ns();
	must(compare(ours, theirs, n) == 20 ? 0 : -EIO, "20 differences");
	tell_used("compare trees, 20 differences", 1, began, "walks/s", 0);
	began = used_ns();
	must(compare(theirs, theirs, n) == 0 ? 0 : -EIO, "no difference");
	tell_used("compare trees, equal, from the top level on", 1, began, "walks/s", 0);
	index_close(ours);
	index_close(theirs);
}

/* --- messages --- */

#define ROWS 512

static void make_rows(union message *m)
{
	*m = (union message){.pair = {.id = 1, .last = 1, .has_k = 1, .n_items = ROWS}};
	m->pair.items = calloc(ROWS, sizeof(*m->pair.items));
	if (!m->pair.items)
		must(-ENOMEM, "rows");
	for (size_t i = 0; i < ROWS; i++) {
		char path[64];

		make_path(path, sizeof(path), i);
		m->pair.items[i] = (struct message_item){.path = strdup(path), .tell = MESSAGE_RECORD};
		live_file(&m->pair.items[i].record, i, i + 1);
	}
}

static void bench_codec(size_t times, struct buf *encoded)
{
	union message m, again;
	int64_t began;

	make_rows(&m);
	began = used_ns();
	for (size_t i = 0; i < times; i++) {
		buf_clear(encoded);
		MUST(message_encode(MESSAGE_ROWS, &m, encoded));
	}
	tell_used("messages, encode rows", (double)(times * ROWS), began, "rows/s", 0);
	began = used_ns();
	for (size_t i = 0; i < times; i++) {
		MUST(message_decode(MESSAGE_ROWS, encoded->data, encoded->len, &again));
		message_deinit(MESSAGE_ROWS, &again);
	}
	tell_used("messages, decode rows", (double)(times * ROWS), began, "rows/s", 0);
	message_deinit(MESSAGE_ROWS, &m);
}

/* One frame again and again: what it costs to write, and how small it gets. */
static void bench_frames(const char *what, const struct buf *payload, int level, size_t times)
{
	struct frame_writer *w;
	struct buf out = BUF_INIT;
	char name[60];
	int64_t began;

	MUST(frame_writer_new(&w, level));
	began = used_ns();
	for (size_t i = 0; i < times; i++) {
		buf_clear(&out);
		MUST(frame_write(w, &out, MESSAGE_ROWS, payload->data, payload->len, level > 0));
	}
	snprintf(name, sizeof(name), "frames, %s, level %d: to %zu %%", what, level, out.len * 100 / payload->len);
	tell_used(name, (double)(payload->len * times) / MIB, began, "MiB/s", 0);
	frame_writer_free(w);
	buf_deinit(&out);
}

static void bench_messages(size_t times)
{
	static const int levels[] = {0, 1, 3, 6, 9}; /* transfer/serve.c uses these */
	struct buf rows = BUF_INIT, content = BUF_INIT;
	uint8_t *bytes = make_content(MESSAGE_DATA_BYTES_MAX);

	bench_codec(times, &rows);
	put_bytes(&content, bytes, MESSAGE_DATA_BYTES_MAX);
	free(bytes);
	for (size_t i = 0; i < ARRAY_SIZE(levels); i++) {
		bench_frames("rows", &rows, levels[i], times);
		bench_frames("content", &content, levels[i], times / 4 + 1);
	}
	buf_deinit(&rows);
	buf_deinit(&content);
}

/* --- putting files in place --- */

static void small_content(uint8_t *ret, size_t i)
{
	memset(ret, 'a' + (int)(i % 26), SMALL_BYTES);
	memcpy(ret, &i, sizeof(i));
}

/* The least that does the same durably: written beside, synced together by a thousand, renamed, their directory synced. */
static double bench_floor_apply(int top, size_t n)
{
	uint8_t bytes[SMALL_BYTES];
	char from[40], to[40];
	int dir, fd;
	int64_t began;

	MUST(file_mkdir(top, "floor", 0700));
	MUST(file_open_directory_at(top, "floor", &dir));
	began = clock_monotonic_ns();
	for (size_t i = 0; i < n; i++) {
		snprintf(from, sizeof(from), "new-%zu", i);
		small_content(bytes, i);
		MUST(file_create(dir, from, 0644, &fd));
		MUST(file_write(fd, bytes, SMALL_BYTES, 0));
		close(fd);
		if ((i + 1) % 1000 && i + 1 < n)
			continue;
		MUST(file_syncfs(dir));
		for (size_t k = i - i % 1000; k <= i; k++) {
			snprintf(from, sizeof(from), "new-%zu", k);
			snprintf(to, sizeof(to), "file-%zu", k);
			MUST(file_rename_noreplace(dir, from, dir, to));
		}
		MUST(file_fsync(dir));
	}
	close(dir);
	return tell("create small files, sync and rename by 1,000", (double)n, began, "files/s", 0);
}

struct incoming {
	char path[64];
	struct record record;
	struct stage *stage;
};

static void stage_one(struct replica *r, struct incoming *in, struct apply_item *item, const struct version_vector *k, size_t i)
{
	uint8_t bytes[SMALL_BYTES];
	struct chunk_tree_entry entry = {.length = SMALL_BYTES};

	make_path(in->path, sizeof(in->path), i);
	live_file(&in->record, i, i + 1);
	small_content(bytes, i);
	hash_bytes(store_algorithm(replica_store(r)), bytes, SMALL_BYTES, &in->record.content.root);
	entry.hash = in->record.content.root;
	MUST(stage_begin(&in->stage, r, in->path, &in->record.content, in->record.mode, 0, false));
	MUST(stage_chunks(in->stage, &entry, 1, NULL));
	must(stage_write(in->stage, 0, bytes, SMALL_BYTES) == STAGE_COMPLETE ? 0 : -EIO, "stage_write");
	MUST(stage_finish(in->stage, &in->record, false));
	*item = (struct apply_item){.path = in->path, .theirs = &in->record, .their_k = k, .staged = stage_name(in->stage), .ready = stage_ready(in->stage)};
}

static void apply_files(struct replica *r, size_t n, double floor)
{
	struct incoming *in = calloc(1000, sizeof(*in));
	struct apply_item *items = calloc(1000, sizeof(*items));
	struct version_vector k = {0};
	const struct apply_options options = {.replica = r, .source = PEER_REPLICA};
	int64_t began = clock_monotonic_ns(), staging = 0, at;

	for (size_t i = 0; in && items && i < n; i += 1000) {
		size_t m = n - i < 1000 ? n - i : 1000;

		at = clock_monotonic_ns();
		for (size_t j = 0; j < m; j++)
			stage_one(r, &in[j], &items[j], &k, i + j);
		staging += clock_monotonic_ns() - at;
		MUST(apply_batch(&options, items, m));
		for (size_t j = 0; j < m; j++) {
			must(items[j].result == APPLY_DONE ? 0 : -EIO, apply_result_name(items[j].result));
			stage_taken(in[j].stage);
			stage_free(in[j].stage);
			record_deinit(&in[j].record);
		}
	}
	tell("stage and apply small files by 1,000", (double)n, began, "files/s", floor);
	tell("of that: stage", (double)n, clock_monotonic_ns() - staging, "files/s", 0);
	free(in);
	free(items);
}

static void bench_apply(int top, const char *path, size_t n)
{
	const struct store_options options = {.create = true};
	const struct version_incarnation peer = {.inc = INCARNATION, .replica = PEER_REPLICA};
	char root[PATH_MAX + 8];
	struct replica_txn t;
	struct replica *r;
	struct store *s;
	double floor = bench_floor_apply(top, n);

	MUST(file_mkdir(top, "root", 0700));
	snprintf(root, sizeof(root), "%s/root", path);
	MUST(store_open(&s, root, &options));
	MUST(replica_open(&r, s));
	MUST(apply_recover(r, NULL));
	replica_lock(r);
	MUST(replica_begin(r, &t));
	MUST(replica_learn_lineage(&t, &peer, 1));
	MUST(replica_commit(&t));
	replica_unlock(r);
	apply_files(r, n, floor);
	replica_close(r);
}

/* --- a walk --- */

static void walk(int dir)
{
	static uint8_t bytes[READ_BYTES];
	DIR *d = fdopendir(dir);
	const struct dirent *e;

	must(d ? 0 : -errno, "open a directory");
	while ((e = readdir(d))) {
		struct stat st;
		int fd;

		if (e->d_name[0] == '.' && (!strcmp(e->d_name, ".") || !strcmp(e->d_name, "..") || !strcmp(e->d_name, PATH_STATE_NAME)))
			continue;
		must(fstatat(dir, e->d_name, &st, AT_SYMLINK_NOFOLLOW) < 0 ? -errno : 0, e->d_name);
		if (!S_ISREG(st.st_mode) && !S_ISDIR(st.st_mode))
			continue;
		fd = openat(dir, e->d_name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
		must(fd < 0 ? -errno : 0, e->d_name);
		if (S_ISDIR(st.st_mode)) {
			walk(fd);
			continue;
		}
		while (read(fd, bytes, sizeof(bytes)) > 0)
			;
		close(fd);
	}
	closedir(d);
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	(void)st, (void)type, (void)ftw;
	return remove(path);
}

int main(int argc, char **argv)
{
	bool full = argc == 2 && !strcmp(argv[1], "full");
	const char *place = getenv("TMPDIR");
	char path[PATH_MAX];
	int top;

	if (argc == 3 && !strcmp(argv[1], "walk")) {
		MUST(file_open_directory(argv[2], &top));
		walk(top);
		return 0;
	}
	if (!full && (argc != 2 || strcmp(argv[1], "small"))) {
		fprintf(stderr, "usage: layers small | full | walk DIR\n");
		return 2;
	}
	snprintf(path, sizeof(path), "%s/syncd-layers.XXXXXX", place ? place : "/tmp");
	must(mkdtemp(path) ? 0 : -errno, "a temporary directory");
	MUST(file_open_directory(path, &top));
	bench_content(top, (size_t)(full ? 512 : 96) * MIB);
	bench_index(top, full ? 200000 : 20000);
	bench_messages(full ? 400 : 60);
	bench_apply(top, path, full ? 20000 : 3000);
	close(top);
	return nftw(path, remove_one, 16, FTW_DEPTH | FTW_PHYS) == 0 ? 0 : 1;
}
