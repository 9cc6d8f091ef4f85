/* tests/unit/tombstones/replica_help.h — a folder in a temporary place, for the tests of this layer. */
#ifndef TESTS_UNIT_TOMBSTONES_REPLICA_HELP_H
#define TESTS_UNIT_TOMBSTONES_REPLICA_HELP_H

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/error.h"
#include "tombstones/replica.h"
#include "tests/unit/where.h"

struct place {
	char root[256];
	struct replica *replica;
};

static inline void place_make(struct place *p)
{
	*p = (struct place){0};
	snprintf(p->root, sizeof(p->root), "%s/syncd-test-XXXXXX", where_disk());
	assert_non_null(mkdtemp(p->root));
}

static inline void place_open(struct place *p)
{
	struct store_options options = {.create = true};
	struct store *store = NULL;

	assert_int_equal(store_open(&store, p->root, &options), 0);
	assert_int_equal(replica_open(&p->replica, store), 0);
}

static inline void place_close(struct place *p)
{
	replica_close(p->replica);
	p->replica = NULL;
}

static inline int place_remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	(void)st;
	(void)type;
	(void)ftw;
	return remove(path);
}

static inline void place_remove(struct place *p)
{
	place_close(p);
	nftw(p->root, place_remove_one, 32, FTW_DEPTH | FTW_PHYS | FTW_MOUNT);
}

/* ROOT/path, in a ring of buffers. */
static inline const char *place_at(const struct place *p, const char *path)
{
	static char ring[8][4700];
	static unsigned next;
	char *s = ring[next++ % 8];

	snprintf(s, sizeof(ring[0]), "%s/%s", p->root, path);
	return s;
}

static inline void place_write(const struct place *p, const char *path, const char *text)
{
	int fd = open(place_at(p, path), O_WRONLY | O_CREAT | O_TRUNC, 0644);

	assert_true(fd >= 0);
	assert_int_equal(write(fd, text, strlen(text)), (ssize_t)strlen(text));
	close(fd);
}

static inline void place_mkdir(const struct place *p, const char *path)
{
	assert_int_equal(mkdir(place_at(p, path), 0755), 0);
}

static inline bool place_has(const struct place *p, const char *path)
{
	struct stat st;

	return lstat(place_at(p, path), &st) == 0;
}

/* The file's text; "" also where there is none. */
static inline const char *place_read(const struct place *p, const char *path)
{
	static char text[4096];
	ssize_t n = 0;
	int fd = open(place_at(p, path), O_RDONLY | O_NOFOLLOW);

	if (fd >= 0) {
		n = read(fd, text, sizeof(text) - 1);
		close(fd);
	}
	text[n > 0 ? n : 0] = '\0';
	return text;
}

#endif
