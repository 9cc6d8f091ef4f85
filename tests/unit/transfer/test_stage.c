/* tests/unit/transfer/test_stage.c — local sources, old versions, holes, lies, races, a full disk. */
#include "transfer/stage.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

#include "base/clock.h"
#include "base/error.h"
#include "tests/unit/where.h"
#include "transfer/partial.h"
#include "transfer/place.h"

#define ALGORITHM HASH_SHA256

struct fixture {
	char root[256];
	struct replica *r;
	struct stage *s;
	unsigned threads;
	bool bulk;
};

/* A content as a peer would announce it. */
struct announced {
	struct content content;
	struct chunk_tree_entry *entries;
	size_t n, cap;
	uint8_t *bytes;
	size_t n_bytes;
};

static void remove_tree(const char *path)
{
	char command[600];

	snprintf(command, sizeof(command), "rm -rf -- '%s'", path);
	assert_int_equal(system(command), 0);
}

static void open_replica(struct fixture *f)
{
	struct store *store = NULL;
	const struct store_options options = {.create = true, .algorithm = ALGORITHM};

	assert_int_equal(store_open(&store, f->root, &options), 0);
	assert_int_equal(replica_open(&f->r, store), 0);
}

static int setup(void **state)
{
	struct fixture *f = test_calloc(1, sizeof(*f));

	snprintf(f->root, sizeof(f->root), "%s/test_stage.XXXXXX", where_disk());
	assert_non_null(mkdtemp(f->root));
	open_replica(f);
	*state = f;
	return 0;
}

static int setup_bulk(void **state)
{
	int r = setup(state);
	struct fixture *f = *state;

	f->bulk = true;
	return r;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	stage_free(f->s);
	replica_close(f->r);
	remove_tree(f->root);
	test_free(f);
	return 0;
}

/* --- files --- */

static const char *in_root(const struct fixture *f, const char *path)
{
	static char full[2][600];
	static unsigned turn;
	char *at = full[turn++ % 2];

	snprintf(at, sizeof(full[0]), "%s/%s", f->root, path);
	return at;
}

static void write_file(const struct fixture *f, const char *path, const void *p, size_t n)
{
	FILE *file = fopen(in_root(f, path), "wb");

	assert_non_null(file);
	assert_int_equal(fwrite(p, 1, n, file), n);
	assert_int_equal(fclose(file), 0);
}

static const char *staged_path(const struct fixture *f)
{
	char relative[64];

	snprintf(relative, sizeof(relative), ".syncd/staging/%s", stage_name(f->s));
	return in_root(f, relative);
}

static size_t staged_count(const struct fixture *f)
{
	DIR *d = opendir(in_root(f, ".syncd/staging"));
	size_t n = 0;

	assert_non_null(d);
	for (struct dirent *e; (e = readdir(d));)
		n += e->d_name[0] != '.';
	closedir(d);
	return n;
}

static void expect_staged(const struct fixture *f, const void *bytes, size_t n)
{
	cleanup_free uint8_t *found = malloc(n + 1);
	FILE *file = fopen(staged_path(f), "rb");
	struct stat st;

	assert_non_null(found);
	assert_non_null(file);
	assert_int_equal(fstat(fileno(file), &st), 0);
	assert_int_equal(st.st_mode & 07777 & ~0640, 0);
	assert_int_equal(st.st_mode & 0600, 0600);
	assert_int_equal(fread(found, 1, n + 1, file), n);
	fclose(file);
	assert_int_equal(memcmp(found, bytes, n), 0);
}

/* The same in every run: where chunks end, and so what is missing, depends on it. No zeros. */
static void fill_noise(uint8_t *p, size_t n)
{
	static uint64_t x = 0x9e3779b97f4a7c15;

	for (size_t i = 0; i < n; i++) {
		x ^= x << 13;
		x ^= x >> 7;
		x ^= x << 17;
		p[i] = (uint8_t)(1 + (x >> 24) % 255);
	}
}

static uint8_t *noise(size_t n)
{
	uint8_t *p = malloc(n ? n : 1);

	assert_non_null(p);
	fill_noise(p, n);
	return p;
}

/* --- announcing --- */

static void announced_deinit(struct announced *a)
{
	free(a->entries);
}

static void add_entry(struct announced *a, const struct chunk_tree_entry *e)
{
	assert_int_equal(array_reserve(&a->entries, &a->cap, a->n + 1, sizeof(*e)), 0);
	a->entries[a->n++] = *e;
}

static int add_chunk(const struct chunk *c, const uint8_t *bytes, void *data)
{
	(void)bytes;
	add_entry(data,
		&(struct chunk_tree_entry){
			.hash = c->hash, .length = c->length, .zero = c->zero});
	return 0;
}

/* The content of a tree over a->entries, true or not. */
static void compute_content(struct announced *a, uint8_t bits)
{
	struct chunk_tree_builder *b = NULL;
	uint64_t offset = 0;

	assert_int_equal(chunk_tree_builder_new(&b, ALGORITHM, NULL, NULL), 0);
	for (size_t i = 0; i < a->n; i++) {
		const struct chunk_tree_entry *e = &a->entries[i];
		struct chunk c = {e->hash, offset, (uint32_t)e->length, e->zero};

		assert_int_equal(chunk_tree_builder_add(b, &c), 0);
		offset += e->length;
	}
	assert_int_equal(chunk_tree_builder_finish(b, &a->content), 0);
	chunk_tree_builder_free(b);
	a->content.chunk_bits = bits;
}

static struct announced announce(const struct fixture *f, const void *p, size_t n, uint8_t bits)
{
	struct announced a = {.bytes = (uint8_t *)p, .n_bytes = n};
	char path[300];
	int fd;

	snprintf(path, sizeof(path), "%s.announced", f->root);
	fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600);
	assert_true(fd >= 0);
	assert_int_equal(file_write(fd, p, n, 0), 0);
	assert_int_equal(
		chunker_run_file(&(struct chunker_file){.fd = fd, .size = n, .bits = bits, .algorithm = ALGORITHM}, add_chunk, &a), 0);
	compute_content(&a, bits);
	close(fd);
	unlink(path);
	return a;
}

/* A chunk that no chunker cut, of a length that one could have. */
static void craft_chunk(struct announced *a, const void *p, uint64_t n, bool zero)
{
	struct chunk_tree_entry e = {.length = n, .zero = zero};

	hash_bytes(ALGORITHM, p, n, &e.hash);
	add_entry(a, &e);
}

/* --- the index --- */

static void index_file(struct fixture *f, const char *path, struct record *state)
{
	struct replica_txn t;
	struct row row = {.place = ROW_ON_DISK};
	struct chunk_tree_node *nodes = NULL;
	size_t n_nodes = 0;
	cleanup_close int dir = -1;
	const char *name;

	assert_int_equal(file_open_parent(store_root(replica_store(f->r)), path, &dir, &name), 0);
	assert_int_equal(
		scan_look(replica_store(f->r), dir, name, state, &row.stamp, &nodes, &n_nodes), 0);
	replica_lock(f->r);
	assert_int_equal(replica_begin(f->r, &t), 0);
	for (size_t i = 0; i < n_nodes; i++)
		assert_int_equal(index_node_put(t.index, &nodes[i].hash, nodes[i].level,
					 nodes[i].payload, nodes[i].n),
			0);
	assert_int_equal(replica_event(&t, REPLICA_EVENT_STATE, NULL, state), 0);
	row.record = *state;
	assert_int_equal(index_put(t.index, path, &row), 0);
	assert_int_equal(replica_commit(&t), 0);
	replica_unlock(f->r);
	scan_nodes_free(nodes, n_nodes);
}

/* A file on disk and in the index. */
static void have_file(struct fixture *f, const char *path, const void *p, size_t n)
{
	struct record state = {0};

	write_file(f, path, p, n);
	index_file(f, path, &state);
	record_deinit(&state);
}

static int begin(struct fixture *f, const char *path, const struct announced *a)
{
	return stage_begin(&f->s, f->r, path, &a->content, 0640, f->threads, f->bulk);
}

static int chunks(struct fixture *f, const struct announced *a)
{
	return stage_chunks(f->s, a->entries, a->n, NULL);
}

/* With a look at all files. */
static int chunks_anywhere(struct fixture *f, const struct announced *a)
{
	struct reuse *reuse = NULL;
	int r;

	assert_int_equal(reuse_new(&reuse), 0);
	r = stage_chunks(f->s, a->entries, a->n, reuse);
	reuse_free(reuse);
	return r;
}

static uint64_t missing_bytes(const struct fixture *f)
{
	size_t n;
	const struct stage_missing *m = stage_missing(f->s, &n);
	uint64_t sum = 0;

	for (size_t i = 0; i < n; i++) {
		assert_true(i == 0 || m[i].offset > m[i - 1].offset);
		sum += m[i].length;
	}
	return sum;
}

/* Send what is missing, last first. */
static void send_missing(struct fixture *f, const struct announced *a)
{
	size_t n;
	const struct stage_missing *m = stage_missing(f->s, &n);

	while (n--)
		assert_int_equal(stage_write(f->s, m[n].chunk, a->bytes + m[n].offset, m[n].length),
			n ? 0 : STAGE_COMPLETE);
}

static void finish(struct fixture *f, const struct announced *a)
{
	assert_int_equal(stage_finish(f->s, NULL, false), 0);
	expect_staged(f, a->bytes, a->n_bytes);
}

/* --- local sources --- */

static void test_empty_file(void **state)
{
	struct fixture *f = *state;
	cleanup(announced_deinit) struct announced a = announce(f, "", 0, 15);

	assert_int_equal(begin(f, "new", &a), STAGE_COMPLETE);
	finish(f, &a);
}

static void test_empty_file_of_another_hash(void **state)
{
	struct fixture *f = *state;
	cleanup(announced_deinit) struct announced a = announce(f, "", 0, 15);

	a.content.root.bytes[3] ^= 1;
	assert_int_equal(begin(f, "new", &a), -EBADMSG);
	assert_null(f->s);
	assert_int_equal(staged_count(f), 0);
}

static void test_equal_content_elsewhere_is_used(void **state)
{
	struct fixture *f = *state;
	cleanup_free uint8_t *p = noise(3 << 20);
	uint8_t bits = chunk_bits_for_size(3 << 20);
	cleanup(announced_deinit) struct announced a = announce(f, p, 3 << 20, bits);
	size_t n = 0;

	assert_int_equal(mkdir(in_root(f, "dir"), 0700), 0);
	have_file(f, "dir/old", p, 3 << 20);
	assert_int_equal(begin(f, "new", &a), STAGE_COMPLETE);
	finish(f, &a);
	stage_nodes(f->s, &n);
	assert_true(a.content.height > 0 && n > 0);
	assert_true(hash_equal(&stage_nodes(f->s, &n)[n - 1].hash, &a.content.root));
	assert_int_equal(chunks(f, &a), -EINVAL); /* nothing left to do */
}

static void test_a_source_that_changed_is_not_believed(void **state)
{
	struct fixture *f = *state;
	size_t size = 300000;
	cleanup_free uint8_t *p = noise(size), *q = malloc(size);
	cleanup(announced_deinit) struct announced a = announce(f, p, size, 15);
	size_t n;

	have_file(f, "old", p, size);
	memcpy(q, p, size);
	q[size / 2] ^= 1;
	write_file(f, "old", q, size);
	assert_int_equal(begin(f, "new", &a), 0);
	stage_nodes(f->s, &n);
	assert_int_equal(n, 0);
	assert_int_equal(chunks(f, &a), 0);
	assert_int_equal(missing_bytes(f), size);
	send_missing(f, &a);
	finish(f, &a);
}

static void test_what_a_changed_source_left_is_no_hole(void **state)
{
	struct fixture *f = *state;
	size_t size = 600000;
	cleanup_free uint8_t *p = calloc(1, size), *q = noise(size);
	struct announced a;

	fill_noise(p, 1000);
	a = announce(f, p, size, 15);
	have_file(f, "old", p, size);
	write_file(f, "old", q, size); /* not zeros any more */
	assert_int_equal(begin(f, "new", &a), 0);
	assert_int_equal(chunks(f, &a), 0);
	assert_true(missing_bytes(f) < size / 2);
	send_missing(f, &a);
	finish(f, &a);
	announced_deinit(&a);
}

static void test_a_source_that_became_a_symlink_is_not_followed(void **state)
{
	struct fixture *f = *state;
	cleanup_free uint8_t *p = noise(5000);
	cleanup(announced_deinit) struct announced a = announce(f, p, 5000, 15);

	have_file(f, "old", p, 5000);
	assert_int_equal(rename(in_root(f, "old"), in_root(f, "moved")), 0);
	assert_int_equal(symlink("moved", in_root(f, "old")), 0);
	assert_int_equal(begin(f, "new", &a), 0);
	assert_int_equal(chunks(f, &a), 0);
	assert_int_equal(missing_bytes(f), 5000);
}

static void test_the_second_source_is_tried(void **state)
{
	struct fixture *f = *state;
	cleanup_free uint8_t *p = noise(5000);
	cleanup(announced_deinit) struct announced a = announce(f, p, 5000, 15);

	have_file(f, "a", p, 5000);
	have_file(f, "b", p, 5000);
	have_file(f, "c", p, 5000);
	assert_int_equal(unlink(in_root(f, "a")), 0);
	write_file(f, "c", "short", 5);
	assert_int_equal(begin(f, "new", &a), STAGE_COMPLETE);
	finish(f, &a);
}

/* --- chunks from a peer --- */

static void test_all_from_the_peer(void **state)
{
	struct fixture *f = *state;
	cleanup_free uint8_t *p = noise(1000000);
	cleanup(announced_deinit) struct announced a = announce(f, p, 1000000, 15);
	size_t n;

	assert_int_equal(begin(f, "new", &a), 0);
	assert_int_equal(stage_finish(f->s, NULL, false), -EINVAL);
	assert_int_equal(stage_write(f->s, 0, p, a.entries[0].length), -EINVAL);
	assert_int_equal(chunks(f, &a), 0);
	assert_int_equal(chunks(f, &a), -EINVAL);
	assert_int_equal(missing_bytes(f), 1000000);
	assert_int_equal(stage_finish(f->s, NULL, false), -EINVAL);
	send_missing(f, &a);
	finish(f, &a);
	stage_nodes(f->s, &n);
	assert_true(n > 0);
}

static void test_a_small_file(void **state)
{
	struct fixture *f = *state;
	cleanup(announced_deinit) struct announced a = announce(f, "hello", 5, 15);

	assert_int_equal(begin(f, "new", &a), 0);
	assert_int_equal(chunks(f, &a), 0);
	assert_int_equal(stage_write(f->s, 0, "hello", 5), STAGE_COMPLETE);
	finish(f, &a);
}

static void test_wrong_bytes_are_thrown_away(void **state)
{
	struct fixture *f = *state;
	cleanup_free uint8_t *p = noise(300000), *bad = malloc(300000);
	cleanup(announced_deinit) struct announced a = announce(f, p, 300000, 15);
	uint32_t length;

	assert_int_equal(begin(f, "new", &a), 0);
	assert_int_equal(chunks(f, &a), 0);
	length = (uint32_t)a.entries[0].length;
	memcpy(bad, p, 300000);
	bad[length - 1] ^= 1;
	assert_int_equal(stage_write(f->s, 0, bad, length), STAGE_MISMATCH);
	assert_int_equal(stage_write(f->s, 0, p, length - 1), STAGE_MISMATCH);
	assert_int_equal(stage_write(f->s, 0, p, length + 1), STAGE_MISMATCH);
	assert_int_equal(stage_write(f->s, 1, p, length), STAGE_MISMATCH);
	assert_int_equal(stage_write(f->s, (uint32_t)a.n, p, length), -EINVAL);
	assert_int_equal(stage_write(f->s, UINT32_MAX, p, length), -EINVAL);
	assert_int_equal(stage_write(f->s, 0, p, length), 0);
	assert_int_equal(stage_write(f->s, 0, p, length), -EINVAL);
	for (size_t i = 1, at = length; i < a.n; at += a.entries[i++].length)
		assert_int_equal(stage_write(f->s, (uint32_t)i, p + at, a.entries[i].length),
			i + 1 < a.n ? 0 : STAGE_COMPLETE);
	finish(f, &a);
}

static void test_a_chunk_that_occurs_twice_travels_once(void **state)
{
	struct fixture *f = *state;
	cleanup_free uint8_t *p = noise(100000), *whole = malloc(130000);
	cleanup(announced_deinit) struct announced a = {.bytes = whole, .n_bytes = 130000};
	size_t n;
	const struct stage_missing *m;

	memcpy(whole, p, 30000);
	memcpy(whole + 30000, p + 30000, 40000);
	memcpy(whole + 70000, p, 30000);
	memcpy(whole + 100000, p, 30000);
	craft_chunk(&a, p, 30000, false);
	craft_chunk(&a, p + 30000, 40000, false);
	craft_chunk(&a, p, 30000, false);
	craft_chunk(&a, p, 30000, false);
	compute_content(&a, 15);
	assert_int_equal(begin(f, "new", &a), 0);
	assert_int_equal(chunks(f, &a), 0);
	m = stage_missing(f->s, &n);
	assert_int_equal(n, 2);
	assert_int_equal(m[0].chunk, 0);
	assert_int_equal(m[1].chunk, 1);
	send_missing(f, &a);
	finish(f, &a);
}

/* --- the old version --- */

/* A user changes bytes in the middle and adds some. */
static uint8_t *edited(const uint8_t *p, size_t n, size_t *ret_n)
{
	uint8_t *q = malloc(n + 7);

	assert_non_null(q);
	memcpy(q, p, n / 2);
	memcpy(q + n / 2, "7 bytes", 7);
	memcpy(q + n / 2 + 7, p + n / 2, n - n / 2);
	*ret_n = n + 7;
	return q;
}

static void test_old_version_by_the_index(void **state)
{
	struct fixture *f = *state;
	size_t size = 4 << 20, new_size;
	cleanup_free uint8_t *p = noise(size), *q = edited(p, size, &new_size);
	uint8_t bits = chunk_bits_for_size(size);
	cleanup(announced_deinit) struct announced a = announce(f, q, new_size, bits);

	have_file(f, "file", p, size);
	assert_int_equal(begin(f, "file", &a), 0);
	assert_int_equal(chunks(f, &a), 0);
	assert_in_range(missing_bytes(f), 1, 5 << bits << 2);
	send_missing(f, &a);
	finish(f, &a);
}

static void test_old_version_cut_otherwise(void **state)
{
	struct fixture *f = *state;
	size_t size = 4 << 20, new_size;
	cleanup_free uint8_t *p = noise(size), *q = edited(p, size, &new_size);
	cleanup(announced_deinit) struct announced a = announce(f, q, new_size, 17);

	have_file(f, "file", p, size);
	assert_int_equal(begin(f, "file", &a), 0);
	assert_int_equal(chunks(f, &a), 0);
	assert_in_range(missing_bytes(f), 1, 5 << 17);
	send_missing(f, &a);
	finish(f, &a);
}

static void test_old_version_holds_everything(void **state)
{
	struct fixture *f = *state;
	size_t size = 1 << 20;
	cleanup_free uint8_t *p = noise(size + 4096);
	cleanup(announced_deinit) struct announced a = announce(f, p, size, 16);

	/* the same bytes, cut by another parameter: not of equal content, but all of it is there */
	have_file(f, "file", p, size);
	assert_int_equal(begin(f, "file", &a), 0);
	assert_int_equal(chunks(f, &a), STAGE_COMPLETE);
	assert_int_equal(missing_bytes(f), 0);
	finish(f, &a);
}

static void old_version_changed(struct fixture *f, uint8_t bits)
{
	size_t size = 1 << 20, new_size, other_size = size / 2;
	cleanup_free uint8_t *p = noise(size), *q = edited(p, size, &new_size);
	cleanup(announced_deinit) struct announced a = announce(f, q, new_size, bits);

	have_file(f, "file", p, size);
	for (size_t at = 0; at < other_size; at += 1000)
		p[at] ^= 0x55;
	write_file(f, "file", p, other_size + 100000); /* other bytes, and shorter */
	assert_int_equal(begin(f, "file", &a), 0);
	assert_int_equal(chunks(f, &a), 0);
	assert_true(missing_bytes(f) > size / 2);
	send_missing(f, &a);
	finish(f, &a);
}

static void test_old_version_changed_since_the_index(void **state)
{
	old_version_changed(*state, chunk_bits_for_size(1 << 20));
}

static void test_old_version_changed_and_cut_otherwise(void **state)
{
	old_version_changed(*state, 17);
}

/* What stands where it stood is shared, but for a look; where the file system can't share, it is copied in the kernel. */
static void test_old_version_is_shared(void **state)
{
	struct fixture *f = *state;
	size_t size = 4 << 20;
	cleanup_free uint8_t *p = noise(size), *q = malloc(size + 5000);

	((struct file_abilities *)store_abilities(replica_store(f->r)))->reflink = true;
	memset(p + (2 << 20), 0, 1 << 20);
	memcpy(q, p, size);
	have_file(f, "file", p, size);
	memcpy(q + (1 << 20), "overwritten", 11);
	memcpy(q + (2 << 20) + 300000, "in zeros", 8);
	memset(q + (3 << 20) + 400000, 0, 70000);
	memset(q + size, 'x', 5000);
	{
		cleanup(announced_deinit) struct announced a = announce(f, q, size + 5000, chunk_bits_for_size(size));

		assert_int_equal(begin(f, "file", &a), 0);
		assert_int_equal(chunks(f, &a), 0);
		assert_in_range(missing_bytes(f), 1, size / 3);
		send_missing(f, &a);
		finish(f, &a);
	}
}

/* The old version is not what the index says any more, where the new one has zeros above all: nothing of it shows. */
static void test_a_shared_old_version_that_changed(void **state)
{
	struct fixture *f = *state;
	size_t size = 4 << 20;
	cleanup_free uint8_t *p = noise(size), *q = malloc(size);

	((struct file_abilities *)store_abilities(replica_store(f->r)))->reflink = true;
	memset(p + 500000, 0, 8192);
	memset(p + 600000, 0, 1 << 20);
	have_file(f, "file", p, size);
	memcpy(q, p, size);
	memcpy(q + (3 << 20), "overwritten", 11);
	memset(p + 500000, 'x', 2 << 20);
	write_file(f, "file", p, size);
	{
		cleanup(announced_deinit) struct announced a = announce(f, q, size, chunk_bits_for_size(size));

		assert_int_equal(begin(f, "file", &a), 0);
		assert_int_equal(chunks(f, &a), 0);
		assert_in_range(missing_bytes(f), 500000, size - 1000000);
		send_missing(f, &a);
		finish(f, &a);
	}
}

/* --- what is shared is verified --- */

/* What was read meanwhile, of which file; what a user does, as that goes on. Calls of base/file come here (see the Makefile). */
static struct {
	uint64_t object, base; /* inodes; 0: none */
	_Atomic unsigned object_reads, base_reads;
	bool no_lease;
	unsigned user_at;	 /* he comes when so many chunks of the base were read; 0: never */
	bool user_waits, user_wrote;
	bool object_differs;	 /* as if he had been there before it was shared */
	const struct fixture *f;
} watched;

int __real_file_lease_read(int fd);
int __wrap_file_lease_read(int fd);
int __wrap_file_lease_read(int fd)
{
	return watched.no_lease ? FILE_UNSUPPORTED : __real_file_lease_read(fd);
}

static void spoil(const char *path, off_t from, off_t to)
{
	int fd = open(path, O_WRONLY | O_NONBLOCK);

	assert_true(fd >= 0);
	for (off_t at = from; at < to; at += 100000)
		assert_int_equal(pwrite(fd, "spoilt", 6, at), 6);
	close(fd);
}

/* He waits for one read at most, then he writes. */
static void user_comes(void)
{
	int fd = open(in_root(watched.f, "file"), O_WRONLY | O_NONBLOCK);

	if (fd < 0) {
		assert_int_equal(errno, EWOULDBLOCK);
		assert_false(watched.user_waits);
		watched.user_waits = true;
		if (watched.object_differs)
			spoil(staged_path(watched.f), 1000, 1001); /* in what was just read of the base */
		return;
	}
	close(fd);
	watched.user_wrote = true;
	spoil(in_root(watched.f, "file"), 1 << 20, 3 << 20);
}

int __real_file_read_as(int fd, void *ret, size_t n, uint64_t offset, bool uncached, size_t *ret_n);
int __wrap_file_read_as(int fd, void *ret, size_t n, uint64_t offset, bool uncached, size_t *ret_n);
int __wrap_file_read_as(int fd, void *ret, size_t n, uint64_t offset, bool uncached, size_t *ret_n)
{
	struct stat st;
	int r = __real_file_read_as(fd, ret, n, offset, uncached, ret_n);

	if (!watched.base || n < 8192 || fstat(fd, &st) < 0)
		return r;
	watched.object_reads += st.st_ino == watched.object;
	if (st.st_ino == watched.base)
		watched.base_reads++;
	if (watched.user_at && watched.base_reads + watched.object_reads >= watched.user_at && !watched.user_wrote)
		user_comes();
	return r;
}

static uint64_t inode_of(const char *path)
{
	struct stat st;

	assert_int_equal(stat(path, &st), 0);
	return st.st_ino;
}

static void watch(struct fixture *f)
{
	watched.f = f;
	watched.object = inode_of(staged_path(f));
	watched.base = inode_of(in_root(f, "file"));
}

static int unwatch(void **state)
{
	memset(&watched, 0, sizeof(watched));
	return teardown(state);
}

/* Most of `size` stands where it stood; a part stands elsewhere as well, and something is new. */
struct versions {
	uint8_t *old, *new;
	size_t size;
	struct announced a;
};

static void versions_deinit(struct versions *v)
{
	free(v->old);
	free(v->new);
	announced_deinit(&v->a);
}

static struct versions two_versions(struct fixture *f, size_t size)
{
	struct versions v = {.old = noise(size), .new = malloc(size), .size = size};

	((struct file_abilities *)store_abilities(replica_store(f->r)))->reflink = true;
	memset(v.old + size / 2, 0, 600000);
	memcpy(v.new, v.old, size);
	memcpy(v.new + size - 600000, v.new + 300000, 500000);
	memcpy(v.new + size - 50000, "new", 3);
	have_file(f, "file", v.old, size);
	v.a = announce(f, v.new, size, chunk_bits_for_size(size));
	assert_int_equal(begin(f, "file", &v.a), 0);
	watch(f);
	return v;
}

static void expect_little_missing(struct fixture *f, const struct versions *v)
{
	assert_int_equal(chunks(f, &v->a), 0);
	watched.base = 0;
	assert_in_range(missing_bytes(f), 1, 600000);
	send_missing(f, &v->a);
	finish(f, &v->a);
}

static bool have_leases(const struct fixture *f)
{
	return store_abilities(replica_store(f->r))->lease;
}

/* But for what is to stand elsewhere as well, of which there is little. */
static void test_the_base_is_read_under_a_lease(void **state)
{
	struct fixture *f = *state;
	cleanup(versions_deinit) struct versions v = two_versions(f, 4 << 20);

	if (!have_leases(f))
		skip();
	expect_little_missing(f, &v);
	assert_in_range(watched.object_reads, 1, 500000 >> 13);
	assert_true(watched.base_reads > 4 * watched.object_reads);
	assert_int_equal(close(open(in_root(f, "file"), O_WRONLY | O_NONBLOCK)), 0); /* nobody waits any more */
}

static void test_the_object_is_read_without_a_lease(void **state)
{
	struct fixture *f = *state;
	cleanup(versions_deinit) struct versions v = two_versions(f, 4 << 20);

	watched.no_lease = true;
	expect_little_missing(f, &v);
	assert_true(watched.object_reads >= v.a.n / 2);
}

static void test_the_object_is_read_while_the_base_is_open_for_writing(void **state)
{
	struct fixture *f = *state;
	cleanup(versions_deinit) struct versions v = two_versions(f, 4 << 20);
	cleanup_close int fd = open(in_root(f, "file"), O_WRONLY);

	assert_true(fd >= 0);
	expect_little_missing(f, &v);
	assert_true(watched.object_reads >= v.a.n / 2);
}

/* He does not wait for more than a chunk, and what he writes neither gets in nor keeps out what was shared before. */
static void test_a_user_writes_to_the_base_while_it_is_read(void **state)
{
	struct fixture *f = *state;
	cleanup(versions_deinit) struct versions v = two_versions(f, 4 << 20);

	if (!have_leases(f))
		skip();
	watched.user_at = 3;
	expect_little_missing(f, &v);
	assert_true(watched.user_waits && watched.user_wrote);
	assert_in_range(watched.base_reads, 3, 10); /* what was not shared is looked for there */
	assert_true(watched.object_reads >= v.a.n / 2);
}

/* What the base said does not count any more: it may have been otherwise when it was shared. */
static void test_what_a_broken_lease_said_is_not_believed(void **state)
{
	struct fixture *f = *state;
	cleanup(versions_deinit) struct versions v = two_versions(f, 4 << 20);

	if (!have_leases(f))
		skip();
	watched.user_at = 1;
	watched.object_differs = true;
	assert_int_equal(chunks(f, &v.a), 0);
	watched.base = 0;
	assert_true(watched.user_wrote);
	send_missing(f, &v.a);
	finish(f, &v.a);
}

static void begin_anew(struct fixture *f, const struct versions *v)
{
	stage_unwanted(f->s);
	stage_free(f->s);
	f->s = NULL;
	assert_int_equal(begin(f, "file", &v->a), 0);
}

static void test_several_threads_verify(void **state)
{
	struct fixture *f = *state;
	cleanup(versions_deinit) struct versions v = two_versions(f, 24 << 20);
	uint64_t missing;

	assert_int_equal(chunks(f, &v.a), 0);
	missing = missing_bytes(f);
	f->threads = 4;
	for (int k = 0; k < 2; k++) {
		watched.no_lease = k == 1;
		begin_anew(f, &v);
		assert_int_equal(chunks(f, &v.a), 0);
		assert_int_equal(missing_bytes(f), missing);
		send_missing(f, &v.a);
		finish(f, &v.a);
	}
}

/* The last that they look at is not what the index says. */
static void test_several_threads_find_a_fault(void **state)
{
	struct fixture *f = *state;
	cleanup(versions_deinit) struct versions v = two_versions(f, 24 << 20);
	uint64_t missing;

	assert_int_equal(chunks(f, &v.a), 0);
	missing = missing_bytes(f);
	f->threads = 4;
	v.old[v.size - 700000] ^= 1;
	write_file(f, "file", v.old, v.size);
	for (int k = 0; k < 2; k++) {
		watched.no_lease = k == 1;
		begin_anew(f, &v);
		assert_int_equal(chunks(f, &v.a), 0);
		assert_in_range(missing_bytes(f), missing + 1, missing + (4 << v.a.content.chunk_bits));
		send_missing(f, &v.a);
		finish(f, &v.a);
	}
}

/* Nothing stands where it stood, some of it stands twice, and some of it is not what the index says. */
static void test_several_threads_copy(void **state)
{
	struct fixture *f = *state;
	size_t size = 24 << 20, twice = 8 << 20;
	cleanup_free uint8_t *p = noise(size), *q = malloc(1 + size + twice);

	assert_non_null(q);
	q[0] = 'x';
	memcpy(q + 1, p, size);
	memcpy(q + 1 + size, p, twice);
	have_file(f, "file", p, size);
	for (uint8_t bits = CHUNK_BITS_MIN; bits < CHUNK_BITS_MIN + 2; bits++) /* the second time the old version is cut anew */
		for (int fault = 0; fault < 2; fault++) {
			cleanup(announced_deinit) struct announced a = announce(f, q, 1 + size + twice, bits);
			uint64_t missing[2];

			p[size / 2] ^= (uint8_t)fault;
			write_file(f, "file", p, size);
			p[size / 2] ^= (uint8_t)fault;
			for (int k = 0; k < 2; k++) {
				f->threads = k ? 4 : 0;
				assert_int_equal(begin(f, "file", &a), 0);
				assert_int_equal(chunks(f, &a), 0);
				missing[k] = missing_bytes(f);
				send_missing(f, &a);
				finish(f, &a);
				expect_staged(f, q, 1 + size + twice);
				stage_unwanted(f->s);
				stage_free(f->s);
				f->s = NULL;
			}
			assert_int_equal(missing[0], missing[1]);
			assert_in_range(missing[0], 1, 12u << bits); /* an end, where the second one begins, and what is at fault */
		}
}

static void test_old_version_is_gone_or_a_symlink(void **state)
{
	struct fixture *f = *state;
	size_t size = 1 << 20, new_size;
	cleanup_free uint8_t *p = noise(size), *q = edited(p, size, &new_size);
	cleanup(announced_deinit) struct announced a = announce(f, q, new_size, 15);

	have_file(f, "file", p, size);
	assert_int_equal(rename(in_root(f, "file"), in_root(f, "moved")), 0);
	for (int i = 0; i < 2; i++) {
		assert_int_equal(begin(f, "file", &a), 0);
		assert_int_equal(chunks(f, &a), 0);
		assert_int_equal(missing_bytes(f), new_size);
		stage_free(f->s);
		f->s = NULL;
		if (i == 0)
			assert_int_equal(symlink("moved", in_root(f, "file")), 0);
	}
}

/* --- other files --- */

#define PART (1 << 20)

/* What is in two files, with something new between the two. */
static uint8_t *put_together(const uint8_t *p, const uint8_t *q)
{
	uint8_t *all = malloc(2 * PART);

	assert_non_null(all);
	memcpy(all, p + PART / 2, PART);
	fill_noise(all + PART, 5000);
	memcpy(all + PART + 5000, q, PART - 5000);
	return all;
}

static void test_chunks_of_other_files(void **state)
{
	struct fixture *f = *state;
	cleanup_free uint8_t *p = noise(2 * PART), *q = noise(PART), *all = put_together(p, q);
	cleanup(announced_deinit) struct announced a = announce(f, all, 2 * PART, 15);
	cleanup_close int base = -1;
	const struct stage_missing *m;
	size_t n, named = 0;

	have_file(f, "p", p, 2 * PART);
	have_file(f, "q", q, PART);
	assert_int_equal(begin(f, "new", &a), 0);
	assert_int_equal(chunks_anywhere(f, &a), 0);
	assert_in_range(missing_bytes(f), 5000, 12 << 15);
	assert_int_equal(stage_open_base(f->s, &base), 0);
	m = stage_missing(f->s, &n);
	for (size_t i = 0; i < n; i++)
		named += m[i].old_to > m[i].old_from && m[i].old_to <= 2 * PART;
	assert_true(named > 0);
	send_missing(f, &a);
	finish(f, &a);
}

/* The path's own old version has most: it stays what missing chunks are compared with. */
static void test_chunks_of_the_old_version_and_of_others(void **state)
{
	struct fixture *f = *state;
	cleanup_free uint8_t *p = noise(PART), *q = noise(2 * PART), *all = malloc(3 * PART);
	struct announced a;
	cleanup_close int base = -1;
	struct file_stat st;

	memcpy(all, p, PART);
	memcpy(all + PART, q, 2 * PART);
	a = announce(f, all, 3 * PART, 15);
	have_file(f, "new", p, PART);
	have_file(f, "q", q, 2 * PART);
	assert_int_equal(begin(f, "new", &a), 0);
	assert_int_equal(chunks_anywhere(f, &a), 0);
	assert_in_range(missing_bytes(f), 1, 6 << 15);
	assert_int_equal(stage_open_base(f->s, &base), 0);
	assert_int_equal(file_stat_fd(base, &st), 0);
	assert_int_equal(st.size, PART);
	send_missing(f, &a);
	finish(f, &a);
	announced_deinit(&a);
}

static void test_little_is_not_looked_for_elsewhere(void **state)
{
	struct fixture *f = *state;
	cleanup_free uint8_t *p = noise(PART);
	cleanup(announced_deinit) struct announced a = announce(f, p, REUSE_BYTES_MIN / 2, 15);

	have_file(f, "p", p, PART);
	assert_int_equal(begin(f, "new", &a), 0);
	assert_int_equal(chunks_anywhere(f, &a), 0);
	assert_int_equal(missing_bytes(f), REUSE_BYTES_MIN / 2);
}

/* Half of what the index says of the first one is not so any more, and the second one is gone. */
static void other_files_changed(struct fixture *f)
{
	cleanup_free uint8_t *p = noise(2 * PART), *q = noise(PART), *all = put_together(p, q);
	cleanup(announced_deinit) struct announced a = announce(f, all, 2 * PART, 15);

	have_file(f, "p", p, 2 * PART);
	have_file(f, "q", q, PART);
	memset(p, 'x', PART);
	write_file(f, "p", p, 2 * PART);
	assert_int_equal(unlink(in_root(f, "q")), 0);
	assert_int_equal(begin(f, "new", &a), 0);
	assert_int_equal(chunks_anywhere(f, &a), 0);
	assert_in_range(missing_bytes(f), PART + PART / 2, 2 * PART - PART / 4);
	send_missing(f, &a);
	finish(f, &a);
}

static void test_other_files_that_changed(void **state)
{
	other_files_changed(*state);
}

/* Where blocks can be shared, what stands at the same place is, and the rest is copied. */
static void test_other_files_are_shared(void **state)
{
	struct fixture *f = *state;
	cleanup_free uint8_t *p = noise(3 * PART), *q = malloc(3 * PART);

	((struct file_abilities *)store_abilities(replica_store(f->r)))->reflink = true;
	memcpy(q, p, 3 * PART);
	memcpy(q + PART, "overwritten", 11);
	memmove(q + 2 * PART + 3, q + 2 * PART, PART - 3);
	have_file(f, "p", p, 3 * PART);
	{
		cleanup(announced_deinit) struct announced a = announce(f, q, 3 * PART, 15);

		assert_int_equal(begin(f, "new", &a), 0);
		assert_int_equal(chunks_anywhere(f, &a), 0);
		assert_in_range(missing_bytes(f), 1, 14 << 15);
		send_missing(f, &a);
		finish(f, &a);
	}
	stage_free(f->s);
	f->s = NULL;
	assert_int_equal(unlink(in_root(f, "p")), 0);
	other_files_changed(f);
}

/* --- holes --- */

static void test_zero_chunks_stay_holes(void **state)
{
	struct fixture *f = *state;
	size_t size = 20 << 20;
	cleanup_free uint8_t *p = calloc(1, size);
	struct announced a;
	struct stat st;

	fill_noise(p, 100000);
	fill_noise(p + size - 100000, 100000);
	a = announce(f, p, size, chunk_bits_for_size(size));
	assert_int_equal(begin(f, "new", &a), 0);
	assert_int_equal(chunks(f, &a), 0);
	assert_true(missing_bytes(f) < 1 << 20);
	send_missing(f, &a);
	finish(f, &a);
	assert_int_equal(stat(staged_path(f), &st), 0);
	assert_true(st.st_blocks * 512 < 1 << 20);
	announced_deinit(&a);
}

static void test_all_zero_file(void **state)
{
	struct fixture *f = *state;
	static uint8_t zeros[600001];
	cleanup(announced_deinit) struct announced a = announce(f, zeros, sizeof(zeros), 15);

	assert_int_equal(begin(f, "new", &a), 0);
	assert_int_equal(chunks(f, &a), STAGE_COMPLETE);
	finish(f, &a);
}

/* One chunk, and no tree that could say what it is. */
static void test_small_file_of_zeros(void **state)
{
	struct fixture *f = *state;
	static uint8_t zeros[131072];
	static const size_t sizes[] = {1, 8, 4096, 9000, sizeof(zeros)};

	for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
		cleanup(announced_deinit) struct announced a = {.bytes = zeros, .n_bytes = sizes[i]};

		craft_chunk(&a, zeros, sizes[i], false);
		compute_content(&a, 15);
		assert_int_equal(begin(f, "new", &a), 0);
		assert_int_equal(chunks(f, &a), 0);
		send_missing(f, &a);
		finish(f, &a);
		stage_free(f->s);
		f->s = NULL;
	}
}

static void test_zero_runs_inside_a_chunk_stay_holes(void **state)
{
	struct fixture *f = *state;
	size_t size = 65536;
	cleanup_free uint8_t *p = calloc(1, size);
	struct announced a;
	struct stat st;

	/* touching both sides of a unit's border, and a lone byte at either end of the file */
	p[0] = 1;
	p[4096 * 3 - 1] = 2;
	p[4096 * 3] = 3;
	p[4096 * 9 + 5] = 4;
	p[size - 1] = 5;
	a = announce(f, p, size, 15);
	assert_int_equal(a.n, 1);
	assert_int_equal(begin(f, "new", &a), 0);
	assert_int_equal(chunks(f, &a), 0);
	send_missing(f, &a);
	finish(f, &a);
	assert_int_equal(stat(staged_path(f), &st), 0);
	assert_true(st.st_blocks * 512 <= 5 * 4096);
	announced_deinit(&a);
}

/* --- lies --- */

static void expect_refused(struct fixture *f, const struct announced *a)
{
	int r = begin(f, "new", a);

	if (r == 0)
		r = chunks(f, a);
	assert_int_equal(r, -EBADMSG);
	stage_free(f->s);
	f->s = NULL;
	assert_int_equal(staged_count(f), 0);
}

static void test_impossible_contents(void **state)
{
	struct fixture *f = *state;
	cleanup(announced_deinit) struct announced a = announce(f, "hello", 5, 15);
	struct content good = a.content;

	a.content.chunk_bits = 14;
	expect_refused(f, &a);
	a.content.chunk_bits = 21;
	expect_refused(f, &a);
	a.content = good;
	a.content.height = CHUNK_TREE_HEIGHT_MAX + 1;
	expect_refused(f, &a);
	a.content = good;
	a.content.size = UINT64_MAX;
	expect_refused(f, &a);
	a.content = good;
	a.content.size = 0;
	expect_refused(f, &a);
	a.content = good;
	assert_int_equal(begin(f, "../evil", &a), -EINVAL);
	assert_int_equal(begin(f, ".syncd/index", &a), -EINVAL);
	assert_int_equal(begin(f, "", &a), -EINVAL);
}

static void test_lists_that_do_not_fit(void **state)
{
	struct fixture *f = *state;
	cleanup_free uint8_t *p = noise(1000000);
	cleanup(announced_deinit) struct announced a = announce(f, p, 1000000, 15);
	size_t n = a.n;

	a.n = 0;
	expect_refused(f, &a);
	a.n = n - 1;
	expect_refused(f, &a);
	a.n = n;
	add_entry(&a, &a.entries[0]);
	expect_refused(f, &a);
	a.n = n;
	a.entries[1].hash.bytes[31] ^= 1;
	expect_refused(f, &a);
	a.entries[1].hash.bytes[31] ^= 1;
	a.entries[1].length++;
	expect_refused(f, &a);
	a.entries[2].length--; /* the sum is right again */
	expect_refused(f, &a);
	a.entries[1].length = UINT64_MAX;
	expect_refused(f, &a);
	a.entries[1].length = 0;
	expect_refused(f, &a);
}

static void test_height_that_is_not_the_trees(void **state)
{
	struct fixture *f = *state;
	cleanup_free uint8_t *p = noise(1000000);
	cleanup(announced_deinit) struct announced a = announce(f, p, 1000000, 15);

	a.content.height++;
	expect_refused(f, &a);
	a.content.height = 0;
	expect_refused(f, &a);
}

static void craft_two(struct announced *a, const uint8_t *p, size_t first, size_t second)
{
	a->n = 0;
	craft_chunk(a, p, first, false);
	craft_chunk(a, p + first, second, false);
	compute_content(a, 15);
}

static void test_lengths_that_no_chunker_makes(void **state)
{
	struct fixture *f = *state;
	cleanup_free uint8_t *p = noise(300000);
	cleanup(announced_deinit) struct announced a = {.bytes = p};

	craft_two(&a, p, 8191, 20000); /* too short */
	expect_refused(f, &a);
	craft_two(&a, p, 20000, 131073); /* too long */
	expect_refused(f, &a);
	craft_two(&a, p, 8192, 1); /* at the limits */
	a.n_bytes = 8193;
	assert_int_equal(begin(f, "new", &a), 0);
	assert_int_equal(chunks(f, &a), 0);
	send_missing(f, &a);
	finish(f, &a);
}

static void test_lies_about_zeros(void **state)
{
	struct fixture *f = *state;
	static uint8_t zeros[131072];
	cleanup_free uint8_t *p = noise(131072);
	cleanup(announced_deinit) struct announced a = {.bytes = zeros};

	craft_chunk(&a, p, 131072, true); /* said to be zeros, hashed from others */
	compute_content(&a, 15);
	expect_refused(f, &a);

	a.n = 0;
	craft_chunk(&a, zeros, 65536, true); /* zeros that the chunker would not have cut here */
	craft_chunk(&a, p, 131072, false);
	compute_content(&a, 15);
	expect_refused(f, &a);

	a.n = 0;
	craft_chunk(&a, p, 131072, false);
	craft_chunk(&a, zeros, 131072, false); /* zeros that are not said to be */
	compute_content(&a, 15);
	assert_int_equal(begin(f, "new", &a), 0);
	assert_int_equal(chunks(f, &a), 0);
	assert_int_equal(stage_write(f->s, 1, zeros, 131072), -EBADMSG);
	assert_int_equal(stage_finish(f->s, NULL, false), -EINVAL);
}

static void test_one_hash_of_two_lengths(void **state)
{
	struct fixture *f = *state;
	cleanup_free uint8_t *p = noise(100000);
	cleanup(announced_deinit) struct announced a = {.bytes = p};

	craft_chunk(&a, p, 20000, false);
	craft_chunk(&a, p, 20000, false);
	a.entries[1].length = 30000;
	compute_content(&a, 15);
	expect_refused(f, &a);
}

/* --- the object's life --- */

static void test_names_and_removal(void **state)
{
	struct fixture *f = *state;
	cleanup(announced_deinit) struct announced a = announce(f, "hello", 5, 15);
	struct stage *other = NULL;
	char kept[600];

	assert_int_equal(begin(f, "new", &a), 0);
	assert_int_equal(stage_begin(&other, f->r, "new", &a.content, 0640, f->threads, false), 0);
	assert_string_not_equal(stage_name(f->s), stage_name(other));
	assert_int_equal(strspn(stage_name(other), "0123456789abcdef"), 16);
	assert_int_equal(strlen(stage_name(other)), 16);
	assert_int_equal(staged_count(f), 2);
	stage_free(other);
	assert_int_equal(staged_count(f), 1);
	snprintf(kept, sizeof(kept), "%s", staged_path(f));
	stage_taken(f->s);
	stage_free(f->s);
	f->s = NULL;
	assert_int_equal(access(kept, F_OK), 0);
	stage_free(NULL);
}

/* But one that could not be opened again, should it have to be something else. */
static void test_attributes(void **state)
{
	static const uint16_t modes[] = {0640, 0600, 0444, 0200};
	struct fixture *f = *state;
	cleanup(announced_deinit) struct announced a = announce(f, "hello", 5, 15);

	for (size_t i = 0; i < ARRAY_SIZE(modes); i++) {
		struct record as = {.live = true, .kind = RECORD_FILE, .content = a.content, .mode = modes[i], .uid = getuid(), .gid = getgid(),
			.mtime_ns = INT64_C(1234567890) * CLOCK_NS_PER_S};
		const struct place_ready *ready;
		struct stat st;

		assert_int_equal(begin(f, "new", &a), 0);
		assert_int_equal(chunks(f, &a), 0);
		assert_int_equal(stage_write(f->s, 0, "hello", 5), STAGE_COMPLETE);
		assert_null(stage_ready(f->s));
		assert_int_equal(stage_finish(f->s, &as, false), 0);
		ready = stage_ready(f->s);
		assert_int_equal(ready != NULL, modes[i] != 0200);
		assert_int_equal(stat(staged_path(f), &st), 0);
		if (ready) {
			assert_int_equal(st.st_mode & 07777, modes[i]);
			assert_int_equal(st.st_mtime, 1234567890);
			assert_true(ready->stamp.ino == st.st_ino && ready->stamp.size == 5 && ready->stamp.mode == modes[i]);
			assert_int_equal(ready->mtime_ns, as.mtime_ns);
		}
		stage_free(f->s);
		f->s = NULL;
	}
}

static void test_object_removed_meanwhile(void **state)
{
	struct fixture *f = *state;
	cleanup(announced_deinit) struct announced a = announce(f, "hello", 5, 15);

	assert_int_equal(begin(f, "new", &a), 0);
	assert_int_equal(chunks(f, &a), 0);
	assert_int_equal(unlink(staged_path(f)), 0);
	assert_int_equal(stage_write(f->s, 0, "hello", 5), STAGE_COMPLETE);
	assert_int_equal(stage_finish(f->s, NULL, false), -ESTALE);
}

/* A tmpfs of 3 MiB, seen by this process only. */
static bool mount_small(const char *where)
{
	return unshare(CLONE_NEWNS) == 0 &&
		mount("none", "/", "", MS_REC | MS_PRIVATE, NULL) == 0 &&
		mount("tmpfs", where, "tmpfs", 0, "size=3m") == 0;
}

/* --- a transfer that was cut --- */

/* The missing chunks from one share of them to another, in sixteenths. */
static void send_part(struct fixture *f, const struct announced *a, size_t from, size_t to)
{
	size_t n;
	const struct stage_missing *m = stage_missing(f->s, &n);

	for (size_t i = n * from / 16; i < n * to / 16; i++)
		assert_in_range(stage_write(f->s, m[i].chunk, a->bytes + m[i].offset, m[i].length), 0, STAGE_COMPLETE);
}

static void cut(struct fixture *f)
{
	stage_free(f->s);
	f->s = NULL;
}

/* Noise with zeros in it: of chunks, and between. */
static uint8_t *holed_noise(size_t n)
{
	uint8_t *p = noise(n);

	memset(p + n / 4, 0, 8192);
	memset(p + n / 2, 0, 1 << 20);
	return p;
}

static void test_goes_on_where_it_was_cut(void **state)
{
	struct fixture *f = *state;
	size_t size = 4 << 20, whole;
	cleanup_free uint8_t *p = holed_noise(size);
	cleanup(announced_deinit) struct announced a = announce(f, p, size, chunk_bits_for_size(size));

	assert_int_equal(begin(f, "new", &a), 0);
	assert_int_equal(chunks(f, &a), 0);
	whole = missing_bytes(f);
	send_part(f, &a, 0, 8);
	cut(f);
	assert_int_equal(staged_count(f), 1);
	assert_int_equal(begin(f, "new", &a), 0);
	cut(f); /* before it knows the chunks */
	assert_int_equal(staged_count(f), 1);
	assert_int_equal(begin(f, "elsewhere", &a), 0);
	assert_int_equal(chunks(f, &a), 0);
	assert_in_range(missing_bytes(f), whole / 4, whole * 5 / 8);
	send_missing(f, &a);
	finish(f, &a);
	assert_int_equal(staged_count(f), 1);

	/* complete, but not put in place */
	cut(f);
	assert_int_equal(staged_count(f), 1);
	assert_int_equal(begin(f, "new", &a), 0);
	assert_int_equal(chunks(f, &a), STAGE_COMPLETE);
	finish(f, &a);
	stage_unwanted(f->s);
	cut(f);
	assert_int_equal(staged_count(f), 0);
}

/* Nothing but what hashes to a chunk counts, and nothing else shows. */
static void test_what_was_left_is_not_believed(void **state)
{
	struct fixture *f = *state;
	size_t size = 4 << 20, whole;
	cleanup_free uint8_t *p = holed_noise(size);
	cleanup(announced_deinit) struct announced a = announce(f, p, size, chunk_bits_for_size(size));
	char junk[30000];
	int fd;

	memset(junk, 'x', sizeof(junk));
	for (int k = 0; k < 3; k++) {
		assert_int_equal(begin(f, "new", &a), 0);
		assert_int_equal(chunks(f, &a), 0);
		if (k == 0) {
			whole = missing_bytes(f);
			send_part(f, &a, 4, 8);
		}
		fd = open(staged_path(f), O_WRONLY);
		assert_true(fd >= 0);
		for (size_t at = k * 100000; at < size + 200000; at += 300000)
			assert_int_equal(pwrite(fd, junk, sizeof(junk), at), sizeof(junk));
		close(fd);
		if (k < 2)
			cut(f);
	}
	cut(f);
	assert_int_equal(begin(f, "new", &a), 0);
	assert_int_equal(chunks(f, &a), 0);
	assert_in_range(missing_bytes(f), whole * 3 / 4, whole);
	send_missing(f, &a);
	finish(f, &a);
}

static void test_two_at_a_time(void **state)
{
	struct fixture *f = *state;
	size_t size = 4 << 20;
	cleanup_free uint8_t *p = holed_noise(size);
	cleanup(announced_deinit) struct announced a = announce(f, p, size, chunk_bits_for_size(size));
	struct stage *first;

	assert_int_equal(begin(f, "new", &a), 0);
	assert_int_equal(chunks(f, &a), 0);
	send_part(f, &a, 0, 8);
	first = f->s;
	f->s = NULL;
	assert_int_equal(begin(f, "other", &a), 0);
	assert_string_not_equal(stage_name(f->s), stage_name(first));
	assert_int_equal(chunks(f, &a), 0);
	send_missing(f, &a);
	finish(f, &a);
	cut(f); /* the place of what is left is taken */
	f->s = first;
	assert_int_equal(staged_count(f), 1);
	send_part(f, &a, 8, 16);
	finish(f, &a);
}

static void test_expired(void **state)
{
	struct fixture *f = *state;
	struct store *store = replica_store(f->r);
	size_t size = 4 << 20;
	cleanup_free uint8_t *p = holed_noise(size);
	cleanup(announced_deinit) struct announced a = announce(f, p, size, chunk_bits_for_size(size));
	int64_t now = clock_wall_ns();
	unsigned n;

	assert_int_equal(begin(f, "new", &a), 0);
	assert_int_equal(chunks(f, &a), 0);
	send_part(f, &a, 0, 8);
	assert_int_equal(partial_expire(store, 0, &n), 0);
	assert_int_equal(n, 0); /* it is being filled */
	cut(f);
	assert_int_equal(partial_expire(store, now, &n), 0);
	assert_int_equal(n, 0);
	assert_int_equal(partial_expire(store, now + PARTIAL_KEEP_NS + CLOCK_NS_PER_S, &n), 0);
	assert_int_equal(n, 1);
	assert_int_equal(staged_count(f), 0);
}

static void test_full_disk(void **state)
{
	struct fixture *f = *state;
	size_t size = 6 << 20, n;
	cleanup_free uint8_t *p = noise(size);
	struct announced a;
	const struct stage_missing *m;
	int r = 0;

	replica_close(f->r);
	f->r = NULL;
	if (!mount_small(f->root)) {
		open_replica(f);
		skip();
	}
	open_replica(f);
	a = announce(f, p, size, chunk_bits_for_size(size));
	assert_int_equal(begin(f, "new", &a), 0);
	assert_int_equal(chunks(f, &a), 0);
	m = stage_missing(f->s, &n);
	for (size_t i = 0; r == 0 && i < n; i++)
		r = stage_write(f->s, m[i].chunk, p + m[i].offset, m[i].length);
	assert_int_equal(r, -ENOSPC);
	assert_int_equal(stage_finish(f->s, NULL, false), -EINVAL);
	stage_free(f->s);
	f->s = NULL;
	assert_int_equal(staged_count(f), 0);
	announced_deinit(&a);

	/* a local copy that does not fit */
	have_file(f, "half", p, 1 << 20);
	have_file(f, "filler", p, (1 << 20) + 4096);
	a = announce(f, p, 1 << 20, 15);
	assert_int_equal(begin(f, "new", &a), -ENOSPC);
	assert_int_equal(staged_count(f), 0);
	announced_deinit(&a);
	replica_close(f->r);
	f->r = NULL;
	assert_int_equal(umount2(f->root, MNT_DETACH), 0);
	open_replica(f);
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
#define BULK(test) {#test ", in bulk", test, setup_bulk, teardown, NULL}
#define WATCHED(name) cmocka_unit_test_setup_teardown(name, setup, unwatch)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(test_empty_file),
		T(test_empty_file_of_another_hash),
		T(test_equal_content_elsewhere_is_used),
		T(test_a_source_that_changed_is_not_believed),
		T(test_what_a_changed_source_left_is_no_hole),
		T(test_a_source_that_became_a_symlink_is_not_followed),
		T(test_the_second_source_is_tried),
		T(test_all_from_the_peer),
		BULK(test_all_from_the_peer),
		T(test_a_small_file),
		T(test_attributes),
		T(test_wrong_bytes_are_thrown_away),
		T(test_a_chunk_that_occurs_twice_travels_once),
		T(test_old_version_by_the_index),
		T(test_old_version_cut_otherwise),
		T(test_old_version_holds_everything),
		T(test_old_version_changed_since_the_index),
		T(test_old_version_changed_and_cut_otherwise),
		T(test_old_version_is_shared),
		T(test_a_shared_old_version_that_changed),
		WATCHED(test_the_base_is_read_under_a_lease),
		WATCHED(test_the_object_is_read_without_a_lease),
		WATCHED(test_the_object_is_read_while_the_base_is_open_for_writing),
		WATCHED(test_a_user_writes_to_the_base_while_it_is_read),
		WATCHED(test_what_a_broken_lease_said_is_not_believed),
		WATCHED(test_several_threads_verify),
		WATCHED(test_several_threads_find_a_fault),
		WATCHED(test_several_threads_copy),
		T(test_old_version_is_gone_or_a_symlink),
		T(test_chunks_of_other_files),
		T(test_chunks_of_the_old_version_and_of_others),
		T(test_little_is_not_looked_for_elsewhere),
		T(test_other_files_that_changed),
		T(test_other_files_are_shared),
		T(test_zero_chunks_stay_holes),
		T(test_all_zero_file),
		T(test_small_file_of_zeros),
		T(test_zero_runs_inside_a_chunk_stay_holes),
		BULK(test_zero_runs_inside_a_chunk_stay_holes),
		T(test_impossible_contents),
		T(test_lists_that_do_not_fit),
		T(test_height_that_is_not_the_trees),
		T(test_lengths_that_no_chunker_makes),
		T(test_lies_about_zeros),
		T(test_one_hash_of_two_lengths),
		T(test_names_and_removal),
		T(test_object_removed_meanwhile),
		T(test_goes_on_where_it_was_cut),
		T(test_what_was_left_is_not_believed),
		T(test_two_at_a_time),
		T(test_expired),
		T(test_full_disk),
		BULK(test_full_disk),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
