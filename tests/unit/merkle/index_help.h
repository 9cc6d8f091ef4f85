/* tests/unit/merkle/index_help.h — temporary indexes and typical rows, for the tests of index, tree and diff. */
#ifndef TESTS_INDEX_HELP_H
#define TESTS_INDEX_HELP_H

#include <dirent.h>
#include <fcntl.h>
#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/error.h"
#include "merkle/index_internal.h"
#include "tests/unit/where.h"

#define HELP_FOLDER UINT64_C(0x1122334455667788)
#define HELP_INC UINT64_C(0xa1b2c3d4e5f60718)

struct temp_index {
	char path[256];
	int dir;
	struct index *x;
};

static inline void temp_directory(struct temp_index *t)
{
	snprintf(t->path, sizeof(t->path), "%s/syncd-test-XXXXXX", where_disk());
	assert_non_null(mkdtemp(t->path));
	t->dir = open(t->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	assert_true(t->dir >= 0);
	t->x = NULL;
}

static inline void temp_remove(struct temp_index *t)
{
	struct dirent *e;
	DIR *d;

	index_close(t->x);
	d = fdopendir(t->dir);
	assert_non_null(d);
	rewinddir(d);
	while ((e = readdir(d)))
		unlinkat(dirfd(d), e->d_name, 0);
	closedir(d);
	rmdir(t->path);
}

/* An index with a key, whose commits are not durable. */
static inline void temp_open(struct temp_index *t)
{
	struct index_txn *w;

	temp_directory(t);
	assert_int_equal(index_open(&t->x, t->dir, true), 0);
	assert_int_equal(index_relax(t->x), 0);
	assert_int_equal(index_begin_write(t->x, &w), 0);
	assert_int_equal(index_set_key(w, HELP_FOLDER, HASH_SHA256), 0);
	assert_int_equal(index_commit(&w), 0);
}

static inline struct index_txn *begin_read(struct index *x)
{
	struct index_txn *t = NULL;

	assert_int_equal(index_begin_read(x, &t), 0);
	return t;
}

static inline struct index_txn *begin_write(struct index *x)
{
	struct index_txn *t = NULL;

	assert_int_equal(index_begin_write(x, &t), 0);
	return t;
}

static inline void row_event(struct row *r, uint64_t counter)
{
	struct version_dot dot = {HELP_INC, counter};

	assert_int_equal(version_vector_raise(&r->record.vv, dot, NULL), 0);
	assert_int_equal(version_dots_add(&r->record.dots, dot), 0);
}

/* A small file on disk, as a first scan would record it. `seed` makes its content, inode and event. */
static inline void file_row(struct row *r, uint64_t seed)
{
	struct version_dot dot = {HELP_INC, seed % 1000000 + 1};

	*r = (struct row){.place = ROW_ON_DISK};
	r->record.live = true;
	r->record.kind = RECORD_FILE;
	hash_bytes(HASH_SHA256, &seed, sizeof(seed), &r->record.content.root);
	r->record.content.size = seed % 50000 + 1;
	r->record.content.chunk_bits = CHUNK_BITS_MIN;
	r->record.mode = 0644;
	r->record.uid = r->record.gid = 1000;
	r->record.mtime_ns = INT64_C(1700000000123456789) + (int64_t)(seed % 1000000) * 1000003;
	row_event(r, dot.counter);
	assert_int_equal(version_dots_add(&r->record.adots, dot), 0);
	assert_int_equal(version_dots_add(&r->record.mdots, dot), 0);
	r->stamp = (struct stamp){.ino = 5000000 + seed,
		.generation = (uint32_t)(seed * 2654435761u),
		.size = r->record.content.size,
		.mtime_ns = r->record.mtime_ns,
		.ctime_ns = r->record.mtime_ns + 5000,
		.mode = 0644,
		.uid = 1000,
		.gid = 1000,
		.nlink = 1,
		.exact = seed % 3};
	r->recorded_ns = r->record.mtime_ns + 100000000;
}

static inline void tombstone_row(struct row *r, uint64_t counter)
{
	*r = (struct row){.since_ns = 1700000000000000000};
	row_event(r, counter);
}

static inline void implied_row(struct row *r)
{
	*r = (struct row){.place = ROW_IMPLIED, .stamp = {.ino = 7, .mode = 0755, .nlink = 2}};
}

/* Put and forget. */
static inline void put_row(struct index_txn *w, const char *path, struct row *r)
{
	assert_int_equal(index_put(w, path, r), 0);
	row_deinit(r);
}

static inline void put_file(struct index_txn *w, const char *path, uint64_t seed)
{
	struct row r;

	file_row(&r, seed);
	put_row(w, path, &r);
}

static inline void put_tombstone(struct index_txn *w, const char *path, uint64_t counter)
{
	struct row r;

	tombstone_row(&r, counter);
	put_row(w, path, &r);
}

/* xorshift: reproducible */
static inline uint64_t next_random(uint64_t *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 7;
	*state ^= *state << 17;
	return *state;
}

#endif
