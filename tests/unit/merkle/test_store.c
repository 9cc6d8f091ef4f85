/* tests/unit/merkle/test_store.c — places, lock, and what proves that root and index belong
 * together. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/error.h"
#include "merkle/store.h"
#include "tests/unit/where.h"

DEFINE_CLEANUP(struct store *, store_close)
#define cleanup_store cleanup(store_close_p)

static const struct store_options create = {.create = true};

struct place {
	char base[64]; /* of the test */
	char root[128];
};

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	(void)st;
	(void)type;
	(void)ftw;
	return remove(path);
}

static void remove_tree(const char *path)
{
	nftw(path, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

static int setup_in(void **state, const char *where)
{
	struct place *p = calloc(1, sizeof(*p));

	if (!p)
		return -1;
	snprintf(p->base, sizeof(p->base), "%.32s/test_store_XXXXXX", where);
	if (!mkdtemp(p->base))
		return -1;
	snprintf(p->root, sizeof(p->root), "%s/root", p->base);
	if (mkdir(p->root, 0755))
		return -1;
	*state = p;
	return 0;
}

static int setup(void **state)
{
	return setup_in(state, where_disk());
}

/* For hundreds of crashes: where fsync costs nothing, if there is such a place. */
static int setup_in_memory(void **state)
{
	return setup_in(state, where_memory());
}

static int teardown(void **state)
{
	struct place *p = *state;

	remove_tree(p->base);
	free(p);
	return 0;
}

/* A path below the root (or the test's base, with "../"), in a ring of buffers. */
static const char *at(const struct place *p, const char *name)
{
	static char ring[32][256];
	static unsigned k;
	char *s = ring[k++ % 32];

	if (!strncmp(name, "../", 3))
		snprintf(s, 256, "%s/%s", p->base, name + 3);
	else
		snprintf(s, 256, "%s/%s", p->root, name);
	return s;
}

static struct store *opened(const struct place *p, const struct store_options *options)
{
	struct store *s = NULL;

	assert_int_equal(store_open(&s, p->root, options), 0);
	return s;
}

static int open_result(const char *root, const struct store_options *options)
{
	cleanup_store struct store *s = NULL;
	int r = store_open(&s, root, options);

	assert_true((r == 0) == (s != NULL));
	return r;
}

static void run(const char *fmt, const char *a, const char *b)
{
	char command[1024];

	snprintf(command, sizeof(command), fmt, a, b);
	assert_int_equal(system(command), 0);
}

static void write_text(const char *path, const char *text)
{
	FILE *f = fopen(path, "w");

	assert_non_null(f);
	assert_true(fputs(text, f) >= 0);
	assert_int_equal(fclose(f), 0);
}

static char *read_text(const char *path, char *ret, size_t cap)
{
	FILE *f = fopen(path, "r");
	size_t n;

	assert_non_null(f);
	n = fread(ret, 1, cap - 1, f);
	ret[n] = '\0';
	fclose(f);
	return ret;
}

/* A live row, so that a rebuilt or emptied index shows. */
static void put_row(struct store *s, const char *path)
{
	struct index_txn *w;
	struct row row = {.place = ROW_ON_DISK};

	row.record.live = true;
	row.record.kind = RECORD_DIRECTORY;
	row.record.mode = 0755;
	assert_int_equal(version_vector_raise(&row.record.vv, (struct version_dot){7, 1}, NULL), 0);
	assert_int_equal(version_dots_add(&row.record.dots, (struct version_dot){7, 1}), 0);
	assert_int_equal(version_dots_add(&row.record.adots, (struct version_dot){7, 1}), 0);
	assert_int_equal(index_begin_write(store_index(s), &w), 0);
	assert_int_equal(index_put(w, path, &row), 0);
	assert_int_equal(index_commit(&w), 0);
	row_deinit(&row);
}

static uint64_t live_rows(struct store *s)
{
	struct index_counts counts;
	struct index_txn *t;

	assert_int_equal(index_begin_read(store_index(s), &t), 0);
	assert_int_equal(index_counts(t, &counts), 0);
	index_abort(t);
	return counts.live;
}

/* --- */

static void test_no_root(void **state)
{
	struct place *p = *state;

	assert_int_equal(open_result(at(p, "absent"), &create), STORE_NO_ROOT);
	write_text(at(p, "file"), "x");
	assert_int_equal(open_result(at(p, "file"), &create), STORE_NO_ROOT);
}

static void test_without_create_nothing_is_made(void **state)
{
	struct place *p = *state;
	struct stat st;

	assert_int_equal(open_result(p->root, NULL), STORE_NO_INDEX);
	assert_int_equal(lstat(at(p, ".syncd"), &st), -1);
}

/* From wherever it is. */
static int join_as(struct store *s, uint64_t folder_id, enum hash_algorithm algorithm, enum store_standing standing)
{
	struct store_folder was, now = {.id = folder_id, .algorithm = algorithm, .standing = standing};

	store_folder(s, &was);
	return store_join(s, &was, &now);
}

static int join(struct store *s, uint64_t folder_id, enum hash_algorithm algorithm)
{
	return join_as(s, folder_id, algorithm, STORE_JOINED);
}

static void test_create_and_reopen(void **state)
{
	struct place *p = *state;
	uint64_t folder, replica;
	struct stat st;
	char text[512];

	{
		cleanup_store struct store *s = opened(p, &create);

		assert_true(store_created(s));
		assert_false(store_copied(s));
		assert_false(store_joined(s));
		assert_int_equal(store_algorithm(s), HASH_SHA256);
		assert_string_equal(store_path(s), p->root);
		folder = store_folder_id(s);
		replica = store_replica_id(s);
		assert_true(folder && replica && folder != replica);
		assert_true(store_abilities(s)->time_granularity_ns > 0);
		assert_int_equal(store_check_root(s), 0);
		assert_int_equal(fstat(store_staging(s), &st), 0);
		assert_int_equal(fstat(store_trash(s), &st), 0);
		put_row(s, "d");
	}
	assert_int_equal(stat(at(p, ".syncd"), &st), 0);
	assert_int_equal(st.st_mode & 07777, 0700);
	assert_int_equal(stat(at(p, ".syncd/identity.new"), &st), -1);
	read_text(at(p, ".syncd/CACHEDIR.TAG"), text, sizeof(text));
	assert_memory_equal(text, "Signature: 8a477f597d28d172789f06886806bc55", 43);
	{
		char expected[128];

		snprintf(expected, sizeof(expected),
			"syncd identity 1\nfolder %016lx\nreplica %016lx\nhash sha256\n",
			(unsigned long)folder, (unsigned long)replica);
		assert_string_equal(
			read_text(at(p, ".syncd/identity"), text, sizeof(text)), expected);
	}
	for (int k = 0; k < 2; k++) {
		cleanup_store struct store *s = opened(p, k ? &create : NULL);

		assert_false(store_created(s));
		assert_false(store_copied(s));
		assert_int_equal(store_folder_id(s), folder);
		assert_int_equal(store_replica_id(s), replica);
		assert_int_equal(live_rows(s), 1);
	}
}

static void test_algorithm(void **state)
{
	struct place *p = *state;
	struct store_options options = {.create = true, .algorithm = HASH_BLAKE2B};

	{
		cleanup_store struct store *s = opened(p, &options);

		assert_int_equal(store_algorithm(s), HASH_BLAKE2B);
	}
	options.algorithm = HASH_XXH3; /* fixed when the folder is created */
	{
		cleanup_store struct store *s = opened(p, &options);

		assert_int_equal(store_algorithm(s), HASH_BLAKE2B);
	}
	options.algorithm = 99;
	assert_int_equal(open_result(p->root, &options), -EINVAL);
}

static void test_lock(void **state)
{
	struct place *p = *state;
	struct store_options options = {.create = true, .holder = "/run/some socket"};
	char *holder = NULL;
	int64_t pid = 0;

	assert_int_equal(store_lock_holder(p->root, &pid, &holder), STORE_NO_INDEX);
	assert_int_equal(store_lock_holder(at(p, "absent"), &pid, &holder), STORE_NO_ROOT);
	{
		cleanup_store struct store *s = opened(p, &options);

		assert_non_null(s);

		assert_int_equal(open_result(p->root, &create), STORE_LOCKED);
		assert_int_equal(store_lock_holder(p->root, &pid, &holder), 0);
		assert_int_equal(pid, getpid());
		assert_string_equal(holder, "/run/some socket");
		free(holder);
	}
	assert_int_equal(store_lock_holder(p->root, &pid, &holder), STORE_NO_INDEX);
	options.holder = NULL;
	{
		cleanup_store struct store *s = opened(p, &options);

		assert_non_null(s);

		assert_int_equal(store_lock_holder(p->root, &pid, &holder), 0);
		assert_string_equal(holder, "");
		free(holder);
	}
	options.holder = "two\nlines";
	assert_int_equal(open_result(p->root, &options), -EINVAL);
}

static void test_a_killed_holder_holds_nothing(void **state)
{
	struct place *p = *state;
	int status, ready[2];
	char byte;
	pid_t child;

	assert_int_equal(pipe(ready), 0);
	child = fork();
	assert_true(child >= 0);
	if (!child) {
		struct store *s;

		if (store_open(&s, p->root, &create) || write(ready[1], "x", 1) != 1)
			_exit(1);
		for (;;)
			pause();
	}
	assert_int_equal(read(ready[0], &byte, 1), 1);
	assert_int_equal(open_result(p->root, NULL), STORE_LOCKED);
	assert_int_equal(kill(child, SIGKILL), 0);
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_int_equal(open_result(p->root, NULL), 0);
	close(ready[0]);
	close(ready[1]);
}

static void test_copied_root_is_another_replica(void **state)
{
	struct place *p = *state;
	uint64_t folder, replica, third;

	{
		cleanup_store struct store *s = opened(p, &create);

		folder = store_folder_id(s);
		replica = store_replica_id(s);
		put_row(s, "d");
		assert_int_equal(join(s, folder, HASH_SHA256), 0);
	}
	run("cp -a %s %s", p->root, at(p, "../copy"));
	{
		cleanup_store struct store *s = NULL;

		assert_int_equal(store_open(&s, at(p, "../copy"), NULL), 0);
		assert_true(store_copied(s));
		assert_false(store_created(s));
		assert_true(store_joined(s));
		assert_int_equal(store_folder_id(s), folder);
		third = store_replica_id(s);
		assert_int_not_equal(third, replica);
		assert_int_equal(live_rows(s), 1); /* what to make of them is the caller's */
	}
	{
		cleanup_store struct store *s = NULL; /* told once; from now on it is its own */

		assert_int_equal(store_open(&s, at(p, "../copy"), NULL), 0);
		assert_false(store_copied(s));
		assert_int_equal(store_replica_id(s), third);
	}
	{
		cleanup_store struct store *s = opened(p, NULL);

		assert_false(store_copied(s));
		assert_int_equal(store_replica_id(s), replica);
	}
}

static void test_moved_root_is_the_same_replica(void **state)
{
	struct place *p = *state;
	uint64_t replica;
	cleanup_store struct store *s = opened(p, &create);

	replica = store_replica_id(s);
	store_close(steal(s));
	assert_int_equal(rename(p->root, at(p, "../moved")), 0);
	assert_int_equal(store_open(&s, at(p, "../moved"), NULL), 0);
	assert_false(store_copied(s));
	assert_int_equal(store_replica_id(s), replica);
}

static void test_index_lost(void **state)
{
	struct place *p = *state;
	uint64_t folder, replica;

	{
		cleanup_store struct store *s = opened(p, &create);

		folder = store_folder_id(s);
		replica = store_replica_id(s);
		put_row(s, "d");
	}
	remove_tree(at(p, ".syncd/index"));
	assert_int_equal(open_result(p->root, NULL), STORE_NO_INDEX);
	{
		cleanup_store struct store *s = opened(p, &create);

		assert_true(store_created(s));
		assert_false(store_copied(s));
		assert_true(store_joined(s));
		assert_int_equal(store_folder_id(s), folder);
		assert_int_not_equal(store_replica_id(s), replica);
		assert_int_equal(live_rows(s), 0);
	}
	assert_int_equal(open_result(p->root, NULL), 0);
}

static void test_identity_lost(void **state)
{
	struct place *p = *state;
	uint64_t folder, replica;

	{
		cleanup_store struct store *s = opened(p, &create);

		folder = store_folder_id(s);
		replica = store_replica_id(s);
	}
	assert_int_equal(unlink(at(p, ".syncd/identity")), 0);
	assert_int_equal(open_result(p->root, NULL), STORE_NO_INDEX);
	{
		cleanup_store struct store *s = opened(p, &create);

		assert_true(store_copied(s));
		assert_int_equal(store_folder_id(s), folder);
		assert_int_not_equal(store_replica_id(s), replica);
	}
	assert_int_equal(open_result(p->root, NULL), 0);
}

static void test_foreign_identity(void **state)
{
	struct place *p = *state;
	const char *other = at(p, "../other");

	assert_int_equal(mkdir(other, 0755), 0);
	assert_int_equal(open_result(p->root, &create), 0);
	assert_int_equal(open_result(other, &create), 0);
	run("cp %s/.syncd/identity %s/.syncd/identity", other, p->root);
	assert_int_equal(open_result(p->root, NULL), STORE_FOREIGN);
	assert_int_equal(open_result(p->root, &create), STORE_FOREIGN);
}

static void test_damaged_identity(void **state)
{
	static const struct {
		const char *text;
		int result;
	} bad[] = {
		{"", -EBADMSG},
		{"syncd identity 1\n", -EBADMSG},
		{"syncd identity 2\nanything", -EPROTONOSUPPORT},
		{"syncd identity 1\nfolder 1\nreplica 2\nhash sha256\n", -EBADMSG},
		{"syncd identity 1\nfolder 0000000000000000\nreplica 0000000000000002\nhash "
		 "sha256\n",
			-EBADMSG},
		{"syncd identity 1\nfolder 0000000000000001\nreplica 0000000000000002\nhash md5\n",
			-EPROTONOSUPPORT},
		{"syncd identity 1\nfolder 0000000000000001\nreplica 0000000000000002\nhash "
		 "sha256\nmore\n",
			-EBADMSG},
		{"syncd identity 1\nfolder 000000000000000A\nreplica 0000000000000002\nhash "
		 "sha256\n",
			-EBADMSG},
	};
	struct place *p = *state;
	cleanup_store struct store *s = opened(p, &create);
	uint64_t folder = store_folder_id(s), replica = store_replica_id(s);

	put_row(s, "d");
	store_close(steal(s));
	for (size_t k = 0; k < ARRAY_SIZE(bad); k++) {
		write_text(at(p, ".syncd/identity"), bad[k].text);
		if (bad[k].result != -EBADMSG) {
			assert_int_equal(open_result(p->root, &create), bad[k].result);
			continue;
		}
		s = opened(p, k % 2 ? &create : NULL); /* the index knows better */
		assert_true(store_identity_remade(s));
		assert_false(store_copied(s) || store_created(s));
		assert_true(store_folder_id(s) == folder && store_replica_id(s) == replica);
		assert_int_equal(live_rows(s), 1);
		assert_int_equal(store_check_root(s), 0);
		store_close(steal(s));
		s = opened(p, NULL);
		assert_false(store_identity_remade(s));
		store_close(steal(s));
	}
	write_text(at(p, ".syncd/identity"), "zeros");
	run("cp -a %s %s", p->root, at(p, "../copy"));
	assert_int_equal(store_open(&s, at(p, "../copy"), NULL), 0);
	assert_true(store_copied(s) && store_folder_id(s) == folder && store_replica_id(s) != replica);
	store_close(steal(s));
	assert_int_equal(open_result(p->root, NULL), 0);
	assert_int_equal(unlink(at(p, ".syncd/identity")), 0);
	assert_int_equal(symlink("/dev/zero", at(p, ".syncd/identity")), 0);
	assert_int_equal(open_result(p->root, &create), -EBADMSG);
}

static void test_root_replaced(void **state)
{
	struct place *p = *state;
	cleanup_store struct store *s = opened(p, &create);

	assert_int_equal(store_check_root(s), 0);
	assert_int_equal(rename(p->root, at(p, "../away")), 0);
	assert_int_equal(store_check_root(s), STORE_ROOT_CHANGED);
	assert_int_equal(mkdir(p->root, 0755), 0);
	assert_int_equal(store_check_root(s), STORE_ROOT_CHANGED);
	run("cp -a %s/.syncd %s/", at(p, "../away"), p->root);
	assert_int_equal(store_check_root(s), STORE_ROOT_CHANGED);
	assert_int_equal(join(s, 5, HASH_SHA256), STORE_ROOT_CHANGED);
	remove_tree(p->root);
	assert_int_equal(rename(at(p, "../away"), p->root), 0);
	assert_int_equal(store_check_root(s), 0);
	assert_int_equal(rename(at(p, ".syncd/identity"), at(p, ".syncd/x")), 0);
	assert_int_equal(store_check_root(s), STORE_ROOT_CHANGED);
	assert_int_equal(rename(at(p, ".syncd/x"), at(p, ".syncd/identity")), 0);
	assert_int_equal(store_check_root(s), 0);
	assert_int_equal(rename(at(p, ".syncd"), at(p, "x")), 0);
	assert_int_equal(store_check_root(s), STORE_ROOT_CHANGED);
}

static void test_join(void **state)
{
	struct place *p = *state;
	uint64_t replica;

	{
		cleanup_store struct store *s = opened(p, &create);

		replica = store_replica_id(s);
		put_row(s, "d");
		assert_int_equal(join(s, 0, HASH_SHA256), -EINVAL);
		assert_int_equal(join(s, 77, 9), -EINVAL);
		assert_int_equal(join(s, store_folder_id(s), HASH_BLAKE2B), -EINVAL);
		assert_false(store_joined(s));
		assert_int_equal(join(s, 77, HASH_SHA256), 0);
		assert_true(store_joined(s));
		assert_int_equal(store_folder_id(s), 77);
		assert_int_equal(store_check_root(s), 0);
		assert_int_equal(live_rows(s), 1);
		assert_int_equal(join(s, 77, HASH_BLAKE2B), -EINVAL);
		assert_int_equal(join(s, 78, HASH_BLAKE2B), -EINVAL);
		assert_int_equal(join(s, 77, HASH_SHA256), 0);
	}
	cleanup_store struct store *s = opened(p, NULL);
	assert_true(store_joined(s));
	assert_false(store_copied(s));
	assert_int_equal(store_folder_id(s), 77);
	assert_int_equal(store_replica_id(s), replica);
	assert_int_equal(live_rows(s), 1);
}

static void test_join_compares_first(void **state)
{
	struct place *p = *state;
	cleanup_store struct store *s = opened(p, &create);
	struct store_folder was, now = {.id = 77, .algorithm = HASH_SHA256, .standing = STORE_OFFERED};

	store_folder(s, &was);
	assert_int_equal(was.standing, STORE_NEW);
	assert_int_equal(join_as(s, was.id, HASH_SHA256, STORE_OFFERED), 0);
	assert_int_equal(store_join(s, &was, &now), STORE_MOVED); /* it is not as new any more */
	now.id = was.id;
	now.standing = STORE_NEW;
	assert_int_equal(store_join(s, &was, &now), 0); /* to the same id that does not matter, and it never falls */
	store_folder(s, &was);
	assert_int_equal(was.standing, STORE_OFFERED);
	now.id = 77;
	assert_int_equal(store_join(s, &was, &now), 0);
	assert_int_equal(store_join(s, &was, &now), STORE_MOVED);
	now.id = was.id;
	assert_int_equal(store_join(s, &was, &now), STORE_MOVED);
	assert_int_equal(store_folder_id(s), 77);
}

static void *renew_often(void *data)
{
	for (int i = 0; i < 100; i++)
		assert_int_equal(store_renew_replica(data), 0);
	return NULL;
}

/* While its ids change the root is what it was, whoever looks. */
static void test_check_while_ids_change(void **state)
{
	struct place *p = *state;
	cleanup_store struct store *s = opened(p, &create);
	pthread_t thread;
	bool changed = false;

	assert_int_equal(pthread_create(&thread, NULL, renew_often, s), 0);
	while (pthread_tryjoin_np(thread, NULL) != 0)
		changed = changed || store_check_root(s) != 0;
	assert_false(changed);
	assert_int_equal(store_check_root(s), 0);
}

static void test_former_ids(void **state)
{
	struct place *p = *state;
	cleanup_store struct store *s = opened(p, &create);
	struct store_folder f, now;
	uint64_t first;

	store_folder(s, &f);
	first = f.id;
	assert_int_equal(join_as(s, 100, HASH_SHA256, STORE_OFFERED), 0);
	store_folder(s, &f);
	assert_int_equal(f.n_former, 0); /* nobody came to the first through us */
	for (uint64_t id = 101; id < 101 + STORE_FORMER_MAX; id++) {
		assert_int_equal(join_as(s, id, HASH_SHA256, STORE_OFFERED), 0);
		store_folder(s, &f);
		assert_int_equal(f.n_former, id - 100);
		assert_true(store_folder_was(&f, id - 1) && store_folder_was(&f, 100));
		assert_false(store_folder_was(&f, first) || store_folder_was(&f, id));
	}
	now = (struct store_folder){.id = f.id, .algorithm = f.algorithm, .former = {5, 110}, .n_former = 2};
	assert_int_equal(store_join(s, &f, &now), 0);
	store_close(steal(s));
	s = opened(p, NULL);
	store_folder(s, &now);
	assert_int_equal(now.standing, STORE_OFFERED);
	assert_int_equal(now.n_former, STORE_FORMER_MAX);
	assert_true(store_folder_was(&now, 5) && store_folder_was(&now, 101) && !store_folder_was(&now, 100));
	assert_int_equal(now.left, UINT32_MAX >> 1); /* all but the last, 5 */
	assert_int_equal(now.former[STORE_FORMER_MAX - 1], 5);
	assert_int_equal(store_renew_replica(s), 0);
	store_close(steal(s));
	run("cp -a %s %s", p->root, at(p, "../copy")); /* a copy stands where the original did */
	assert_int_equal(store_open(&s, at(p, "../copy"), NULL), 0);
	assert_true(store_copied(s));
	store_folder(s, &f);
	assert_memory_equal(&f, &now, sizeof(f));
}

/* The index as version 1 left it: a flag, no standing, no former ids. */
static void write_version_1(struct store *s, uint8_t flags)
{
	struct index_txn *t;
	struct buf b = BUF_INIT;

	assert_int_equal(index_begin_write(store_index(s), &t), 0);
	assert_int_equal(index_meta_get(t, INDEX_META_IDENTITY, &b), 0);
	assert_int_equal(b.data[0], 2);
	b.data[0] = 1;
	b.data[1] = flags;
	memmove(b.data + 2, b.data + 3, b.len - 3);
	assert_int_equal(index_meta_put(t, INDEX_META_IDENTITY, b.data, b.len - 6), 0);
	assert_int_equal(index_commit(&t), 0);
	buf_deinit(&b);
}

static void test_version_1_is_read(void **state)
{
	struct place *p = *state;
	cleanup_store struct store *s = opened(p, &create);
	uint64_t folder = store_folder_id(s), replica = store_replica_id(s);
	struct store_folder f;

	for (int joined = 0; joined < 2; joined++) {
		write_version_1(s, (uint8_t)joined);
		store_close(steal(s));
		s = opened(p, NULL);
		store_folder(s, &f);
		assert_int_equal(f.standing, joined ? STORE_JOINED : STORE_OFFERED);
		assert_int_equal(f.id, folder);
		assert_int_equal(f.n_former, 0);
		assert_int_equal(store_replica_id(s), replica);
		assert_false(store_copied(s));
		assert_int_equal(store_renew_replica(s), 0); /* from now on in this version */
		replica = store_replica_id(s);
	}
}

static void write_mount(struct store *s, uint8_t version, struct file_mount as, uint32_t number)
{
	struct index_txn *t;
	struct buf b = BUF_INIT;

	put_u8(&b, version);
	put_bytes(&b, as.boot, sizeof(as.boot));
	put_u64(&b, as.id);
	put_u32(&b, number);
	assert_int_equal(index_begin_write(store_index(s), &t), 0);
	assert_int_equal(index_meta_put(t, INDEX_META_MOUNT, b.data, b.len), 0);
	assert_int_equal(index_commit(&t), 0);
	buf_deinit(&b);
}

static uint32_t mount_when_opened_again(const struct place *p, struct store **s)
{
	store_close(steal(*s));
	*s = opened(p, NULL);
	return store_mount(*s);
}

/* Each boot and mount has a number of its own; processes share it. */
static void test_mounts_are_counted(void **state)
{
	struct place *p = *state;
	cleanup_store struct store *s = opened(p, &create);
	struct stamp none = {0}, now = {.exact = 1}, before;
	struct file_mount here, other;

	if (!store_abilities(s)->exact_times) {
		assert_int_equal(store_mount(s), 0);
		skip();
	}
	assert_int_equal(file_mounted_as(store_root(s), &here), 0);
	assert_int_equal(store_mount(s), 1);
	assert_true(store_exact(s, &now) && !store_exact(s, &none));
	assert_int_equal(mount_when_opened_again(p, &s), 1);
	other = here;
	other.id++;
	write_mount(s, 1, other, 1);
	before = now;
	now.exact = 2;
	assert_int_equal(mount_when_opened_again(p, &s), 2);
	assert_true(store_exact(s, &now) && !store_exact(s, &before) && !store_exact(s, &none));
	other = here;
	other.boot[15] ^= 1;
	write_mount(s, 1, other, UINT32_MAX - 1);
	assert_int_equal(mount_when_opened_again(p, &s), UINT32_MAX);
	assert_int_equal(mount_when_opened_again(p, &s), UINT32_MAX);
	write_mount(s, 1, other, UINT32_MAX); /* no number is given twice */
	assert_int_equal(mount_when_opened_again(p, &s), 0);
	assert_false(store_exact(s, &now) || store_exact(s, &none));
	write_mount(s, 2, here, 7); /* of a version to come */
	assert_int_equal(mount_when_opened_again(p, &s), 0);
	write_mount(s, 1, here, 7);
	assert_int_equal(mount_when_opened_again(p, &s), 7);
}

static void test_join_with_another_algorithm_drops_rows(void **state)
{
	struct place *p = *state;
	cleanup_store struct store *s = opened(p, &create);

	put_row(s, "d");
	assert_int_equal(join(s, 77, HASH_BLAKE2B), 0);
	assert_int_equal(live_rows(s), 0);
	store_close(steal(s));
	s = opened(p, NULL);
	assert_int_equal(store_algorithm(s), HASH_BLAKE2B);
}

static void test_renew(void **state)
{
	struct place *p = *state;
	cleanup_store struct store *s = opened(p, &create);
	uint64_t folder = store_folder_id(s), replica = store_replica_id(s), renewed;

	assert_int_equal(store_renew_replica(s), 0);
	renewed = store_replica_id(s);
	assert_int_not_equal(renewed, replica);
	assert_int_equal(store_folder_id(s), folder);
	store_close(steal(s));
	s = opened(p, NULL);
	assert_int_equal(store_replica_id(s), renewed);
	assert_false(store_copied(s));
	assert_false(store_joined(s));
}

/* --- a damaged index --- */

struct ids {
	uint64_t folder, replica;
	enum hash_algorithm algorithm;
};

/* A joined replica with a row; closed. */
static struct ids make_replica(const struct place *p, const char *state_dir)
{
	const struct store_options options = {.create = true, .state_dir = state_dir, .algorithm = HASH_BLAKE2B};
	cleanup_store struct store *s = opened(p, &options);

	assert_int_equal(join(s, store_folder_id(s), store_algorithm(s)), 0);
	put_row(s, "d");
	return (struct ids){store_folder_id(s), store_replica_id(s), store_algorithm(s)};
}

static void damage(const char *data, const char *how)
{
	char command[512];

	usleep(20000); /* the times of files tell this from the last commit */
	snprintf(command, sizeof(command), how, data);
	assert_int_equal(system(command), 0);
}

static bool same_bytes(const char *a, const char *b)
{
	char command[512];

	snprintf(command, sizeof(command), "cmp -s %s %s", a, b);
	return system(command) == 0;
}

/* It goes on as a new replica of the same folder, which says why; the damaged index is kept as it was. */
static void assert_rebuilt(const struct place *p, const struct ids *ids, const struct store_options *options)
{
	const char *dir = options ? options->state_dir : at(p, ".syncd/index");
	cleanup_store struct store *s = NULL;
	uint64_t replica;
	char kept[256], data[256];

	snprintf(kept, sizeof(kept), "%s/" REBUILD_KEPT, dir);
	snprintf(data, sizeof(data), "%s/data.mdb", dir);
	run("cp %s %s", data, at(p, "../damaged"));
	s = opened(p, options);
	replica = store_replica_id(s);
	assert_true(store_rebuilt_now(s) && store_created(s) && store_joined(s) && !store_copied(s));
	assert_true(store_folder_id(s) == ids->folder && store_algorithm(s) == ids->algorithm);
	assert_true(replica != ids->replica);
	assert_int_equal(live_rows(s), 0);
	assert_non_null(store_rebuilt(s));
	assert_true(store_rebuilt(s)->why[0] && store_rebuilt(s)->last_s && !store_rebuilt(s)->aside);
	assert_true(same_bytes(kept, at(p, "../damaged")));
	assert_int_equal(store_check_root(s), 0);
	store_close(steal(s));
	s = opened(p, options);
	assert_false(store_rebuilt_now(s) || store_created(s));
	assert_true(store_rebuilt(s) && store_replica_id(s) == replica);
}

static const char *const damages[] = {
	": >%s",
	"truncate -s 100 %s",
	"truncate -s 8192 %s",
	"truncate -s -4096 %s",
	"head -c 65536 /dev/urandom >%s",
	"echo this is no index >%s",
	"dd if=/dev/zero of=%s bs=4096 count=1 conv=notrunc status=none",
	"dd if=/dev/zero of=%s bs=4096 seek=1 count=1 conv=notrunc status=none",
	"dd if=/dev/zero of=%s bs=4096 seek=2 count=8 conv=notrunc status=none",
	"printf X | dd of=%s bs=1 seek=16 conv=notrunc status=none",
};

static void test_damaged_index(void **state)
{
	struct place *p = *state;

	for (size_t k = 0; k < ARRAY_SIZE(damages); k++) {
		struct ids ids = make_replica(p, NULL);

		damage(at(p, ".syncd/index/data.mdb"), damages[k]);
		assert_rebuilt(p, &ids, NULL);
		remove_tree(at(p, ".syncd"));
	}
}

/* Each byte in its turn would be many: a file of this size has its tables in a few pages. */
static void test_damaged_in_the_middle(void **state)
{
	struct place *p = *state;
	struct ids ids = make_replica(p, NULL);
	struct stat st;
	int told = 0;

	run("cp -a %s %s", p->root, at(p, "../whole"));
	assert_int_equal(stat(at(p, ".syncd/index/data.mdb"), &st), 0);
	for (int page = 2; page < st.st_size / 4096; page++) {
		cleanup_store struct store *s = NULL;
		char how[128];

		snprintf(how, sizeof(how), "printf Q | dd of=%%s bs=1 seek=%d conv=notrunc status=none", page * 4096 + 4080);
		damage(at(p, ".syncd/index/data.mdb"), how);
		s = opened(p, NULL); /* in a free page it does not matter */
		assert_int_equal(live_rows(s), store_rebuilt_now(s) ? 0 : 1);
		assert_true(store_folder_id(s) == ids.folder);
		told += store_rebuilt_now(s);
		store_close(steal(s));
		run("cp %s/.syncd/index/data.mdb %s/.syncd/index/", at(p, "../whole"), p->root);
		run("cp %s/.syncd/identity %s/.syncd/", at(p, "../whole"), p->root);
		if (!unlink(at(p, ".syncd/index/" REBUILD_NOTE)))
			unlink(at(p, ".syncd/index/" REBUILD_KEPT));
	}
	assert_true(told > 5);
}

static void put_identity(const struct place *p, const void *bytes, size_t n)
{
	cleanup_store struct store *s = opened(p, NULL);
	struct index_txn *w;

	assert_int_equal(index_begin_write(store_index(s), &w), 0);
	assert_int_equal(index_meta_put(w, INDEX_META_IDENTITY, bytes, n), 0);
	assert_int_equal(index_commit(&w), 0);
}

static void test_damaged_identity_row(void **state)
{
	struct place *p = *state;
	struct ids ids = make_replica(p, NULL);

	put_identity(p, "\2junk", 5);
	assert_rebuilt(p, &ids, NULL);
	put_identity(p, "\3of another version", 19);
	assert_int_equal(open_result(p->root, NULL), -EPROTONOSUPPORT);
	assert_int_equal(open_result(p->root, NULL), -EPROTONOSUPPORT);
}

static void test_damaged_index_of_nobody(void **state)
{
	struct place *p = *state;

	make_replica(p, NULL);
	damage(at(p, ".syncd/index/data.mdb"), damages[2]);
	write_text(at(p, ".syncd/identity"), "zeros");
	assert_int_equal(open_result(p->root, &create), -EBADMSG);
	assert_int_equal(unlink(at(p, ".syncd/identity")), 0);
	assert_int_equal(open_result(p->root, &create), -EBADMSG);
	assert_int_equal(access(at(p, ".syncd/index/data.mdb"), F_OK), 0);
	assert_int_equal(access(at(p, ".syncd/index/" REBUILD_KEPT), F_OK), -1);
}

static void test_damaged_index_in_state_dir(void **state)
{
	struct place *p = *state;
	const char *dir = at(p, "../state");
	const struct store_options options = {.state_dir = dir};
	struct ids ids = make_replica(p, dir);

	damage(at(p, "../state/data.mdb"), damages[8]);
	assert_int_equal(rename(at(p, ".syncd/identity"), at(p, "../identity")), 0);
	assert_int_equal(open_result(p->root, &options), STORE_FOREIGN); /* the root is not mounted */
	assert_int_equal(access(at(p, "../state/" REBUILD_KEPT), F_OK), -1);
	assert_int_equal(rename(at(p, "../identity"), at(p, ".syncd/identity")), 0);
	assert_rebuilt(p, &ids, &options);
}

/* A disk that damages each index is not given one after the other. */
static void test_damaged_again_and_again(void **state)
{
	struct place *p = *state;
	struct ids ids = make_replica(p, NULL);
	char text[512], *since;

	for (int k = 0; k < REBUILD_PER_DAY; k++) {
		damage(at(p, ".syncd/index/data.mdb"), damages[k + 1]);
		assert_rebuilt(p, &ids, NULL);
	}
	run("cp %s %s", at(p, ".syncd/index/" REBUILD_KEPT), at(p, "../last"));
	damage(at(p, ".syncd/index/data.mdb"), damages[8]);
	assert_int_equal(open_result(p->root, NULL), STORE_FAILING);
	assert_int_equal(open_result(p->root, &create), STORE_FAILING);
	assert_true(same_bytes(at(p, ".syncd/index/" REBUILD_KEPT), at(p, "../last")));
	read_text(at(p, ".syncd/index/rebuilt"), text, sizeof(text));
	since = strstr(text, "since ");
	assert_non_null(since);
	since[6] = '0' + (since[6] - '0' + 9) % 10; /* a digit less: long ago */
	write_text(at(p, ".syncd/index/rebuilt"), text);
	assert_rebuilt(p, &ids, NULL);
}

/* --- crashes --- */

static void test_crash_before_anything_is_named(void **state)
{
	struct place *p = *state;

	assert_int_equal(mkdir(at(p, ".syncd"), 0700), 0);
	write_text(at(p, ".syncd/lock"), "");
	write_text(at(p, ".syncd/identity.new"), "syncd ident"); /* torn */
	assert_int_equal(open_result(p->root, NULL), STORE_NO_INDEX);
	{
		cleanup_store struct store *s = opened(p, &create);

		assert_true(store_created(s));
		assert_false(store_copied(s));
	}
	assert_int_equal(open_result(p->root, NULL), 0);
}

static void test_stray_staged_identity_means_nothing(void **state)
{
	struct place *p = *state;
	cleanup_store struct store *s = opened(p, &create);
	uint64_t replica = store_replica_id(s);

	store_close(steal(s));
	write_text(at(p, ".syncd/identity.new"),
		"syncd identity 1\nfolder 0000000000000001\nreplica "
		"0000000000000002\nhash sha256\n");
	s = opened(p, NULL);
	assert_int_equal(store_replica_id(s), replica);
	assert_int_equal(store_renew_replica(s), 0);
	assert_int_equal(access(at(p, ".syncd/identity.new"), F_OK), -1);
}

/*
 * Run work() in a child and kill it before its n-th system call. 1: killed; 0: it came to its end;
 * -1: we may not trace.
 */
static int killed_at(int n, int (*work)(const struct place *p), const struct place *p)
{
	int status, calls = 0;
	pid_t child = fork();

	assert_true(child >= 0);
	if (!child) {
		if (ptrace(PTRACE_TRACEME, 0, NULL, NULL))
			_exit(99);
		raise(SIGSTOP);
		_exit(work(p));
	}
	for (;;) {
		assert_int_equal(waitpid(child, &status, 0), child);
		if (WIFEXITED(status)) {
			assert_true(WEXITSTATUS(status) == 0 || WEXITSTATUS(status) == 99);
			return WEXITSTATUS(status) ? -1 : 0;
		}
		if (WSTOPSIG(status) == SIGTRAP &&
			++calls == 2 * n - 1) /* each stops twice: before and after */
			break;
		assert_int_equal(ptrace(PTRACE_SYSCALL, child, NULL, NULL), 0);
	}
	assert_int_equal(kill(child, SIGKILL), 0);
	assert_int_equal(waitpid(child, &status, 0), child);
	return 1;
}

/*
 * Which instant to try next: each one while a new identity is under way, and few before and after
 * it. *close: how many more are to be tried one by one.
 */
static int next_instant(const struct place *p, int n, int *close)
{
	const int stride = 6;

	if (!access(at(p, ".syncd/identity.new"), F_OK)) {
		if (!*close && n > stride) {
			*close = 3 * stride;
			return n - stride + 1; /* it began since the last one */
		}
		*close = 3 * stride;
	}
	if (*close)
		--*close;
	return *close || getenv("TEST_EVERY_INSTANT") ? n + 1 : n + stride;
}

static int work_create(const struct place *p)
{
	struct store *s;

	return store_open(&s, p->root, &create) != 0;
}

static int work_join(const struct place *p)
{
	struct store *s;

	return store_open(&s, p->root, NULL) || join(s, 77, HASH_SHA256);
}

static int work_open(const struct place *p)
{
	struct store *s;

	return store_open(&s, p->root, NULL) != 0;
}

static int work_renew(const struct place *p)
{
	struct store *s;

	return store_open(&s, p->root, NULL) || store_renew_replica(s);
}

static void test_killed_while_creating(void **state)
{
	struct place *p = *state;
	int r, n = 1, next, close = 0;

	for (r = 1; r > 0; n = next) {
		r = killed_at(n, work_create, p);
		if (r < 0)
			skip();
		next = next_instant(p, n, &close);
		{
			cleanup_store struct store *s = opened(p, &create);
			uint64_t replica = store_replica_id(s);

			if (store_copied(s) || store_joined(s))
				fail_msg("killed before call %d: copied %d, joined %d", n,
					store_copied(s), store_joined(s));
			store_close(steal(s));
			s = opened(p, NULL);
			assert_int_equal(store_replica_id(s), replica);
			assert_false(store_created(s));
		}
		assert_int_equal(access(at(p, ".syncd/identity.new"), F_OK), -1);
		if (r)
			remove_tree(at(p, ".syncd"));
	}
	assert_true(n > 20);
}

/* Of a root whose ids were about to change. */
static void assert_copy_is_recognised(const struct place *p)
{
	cleanup_store struct store *s = NULL;

	run("cp -a %s %s", p->root, at(p, "../copy"));
	assert_int_equal(store_open(&s, at(p, "../copy"), NULL), 0);
	assert_true(store_copied(s));
	remove_tree(at(p, "../copy"));
}

static void test_killed_while_joining(void **state)
{
	struct place *p = *state;
	int r, n = 1, next, close = 0, joined = 0, copies = 0;
	uint64_t folder, replica;

	for (r = 1; r > 0; n = next) {
		cleanup_store struct store *s = opened(p, &create);

		folder = store_folder_id(s);
		replica = store_replica_id(s);
		put_row(s, "d");
		store_close(steal(s));
		r = killed_at(n, work_join, p);
		if (r < 0)
			skip();
		next = next_instant(p, n, &close);
		if (!access(at(p, ".syncd/identity.new"), F_OK)) {
			assert_copy_is_recognised(p);
			copies++;
		}
		s = opened(p, NULL);
		if (store_copied(s) || store_created(s))
			fail_msg("killed before call %d: copied %d", n, store_copied(s));
		assert_int_equal(store_folder_id(s), store_joined(s) ? 77 : folder);
		assert_int_equal(store_replica_id(s), replica);
		assert_int_equal(live_rows(s), 1);
		assert_int_equal(store_check_root(s), 0);
		joined += store_joined(s);
		remove_tree(at(p, ".syncd"));
	}
	assert_true(n > 20 && joined > 1 && copies > 1);
}

/* Whatever was done by then: the next opening goes on, and what is kept is the damaged index, not a new one that was cut off. */
static void test_killed_while_rebuilding(void **state)
{
	struct place *p = *state;
	int r, begun = 0, n = 1;

	for (r = 1; r > 0; n++) {
		struct ids ids = make_replica(p, NULL);
		cleanup_store struct store *s = NULL;

		damage(at(p, ".syncd/index/data.mdb"), "truncate -s 20000 %s");
		r = killed_at(n, work_open, p);
		if (r < 0)
			skip();
		begun += access(at(p, ".syncd/index/" REBUILD_NOTE), F_OK) == 0;
		s = opened(p, NULL);
		assert_true(store_joined(s) && !store_copied(s));
		assert_true(store_folder_id(s) == ids.folder && store_algorithm(s) == ids.algorithm);
		assert_true(store_replica_id(s) != ids.replica);
		assert_int_equal(live_rows(s), 0);
		assert_true(store_rebuilt(s)->count == 1 && !store_rebuilt(s)->aside);
		damage(at(p, ".syncd/index/" REBUILD_KEPT), "test $(stat -c %%s %s) = 20000");
		assert_int_equal(access(at(p, ".syncd/identity.new"), F_OK), -1);
		store_close(steal(s));
		remove_tree(at(p, ".syncd"));
	}
	assert_true(begun > 20 && begun < n);
}

static void test_killed_while_renewing(void **state)
{
	struct place *p = *state;
	int r, n = 1, next, close = 0;
	uint64_t before, after = 0;

	cleanup_store struct store *s = opened(p, &create);
	before = store_replica_id(s);
	store_close(steal(s));
	for (r = 1; r > 0; n = next) {
		r = killed_at(n, work_renew, p);
		if (r < 0)
			skip();
		next = next_instant(p, n, &close);
		s = opened(p, NULL);
		assert_false(store_copied(s));
		after = store_replica_id(s);
		store_close(steal(s));
	}
	assert_int_not_equal(after, before);
}

/* A copy that was interrupted while it took its new id is still told to be one, or is not yet one.
 */
static void test_killed_while_a_copy_is_recognised(void **state)
{
	struct place *p = *state;
	uint64_t replica;
	int r, n = 1, next, close = 0, told = 0;
	cleanup_store struct store *s = opened(p, &create);

	replica = store_replica_id(s);
	store_close(steal(s));
	run("mv %s %s", p->root, at(p, "../original"));
	for (r = 1; r > 0; n = next) {
		run("cp -a %s %s", at(p, "../original"), p->root);
		r = killed_at(n, work_open, p);
		if (r < 0)
			skip();
		next = next_instant(p, n, &close);
		s = opened(p, NULL);
		assert_int_not_equal(store_replica_id(s), replica);
		told += store_copied(s);
		store_close(steal(s));
		remove_tree(p->root);
	}
	assert_true(told > 1);
}

/* --- state_dir --- */

static void test_state_dir(void **state)
{
	struct place *p = *state;
	struct store_options options = {.create = true, .state_dir = at(p, "../state")};
	uint64_t replica;
	struct stat st;

	{
		cleanup_store struct store *s = opened(p, &options);

		replica = store_replica_id(s);
		put_row(s, "d");
	}
	assert_int_equal(stat(at(p, "../state/data.mdb"), &st), 0);
	assert_int_equal(stat(at(p, ".syncd/index"), &st), -1);
	options.create = false;
	{
		cleanup_store struct store *s = opened(p, &options);

		assert_int_equal(store_replica_id(s), replica);
		assert_int_equal(live_rows(s), 1);
	}
	/* the root is not mounted: its index is not taken for that of what is there now */
	assert_int_equal(rename(p->root, at(p, "../away")), 0);
	assert_int_equal(mkdir(p->root, 0755), 0);
	assert_int_equal(open_result(p->root, &options), STORE_NO_INDEX);
	options.create = true;
	assert_int_equal(open_result(p->root, &options), STORE_FOREIGN);
	remove_tree(p->root);

	/* of another folder */
	assert_int_equal(mkdir(p->root, 0755), 0);
	assert_int_equal(open_result(p->root, &create), 0);
	assert_int_equal(open_result(p->root, &options), STORE_FOREIGN);
}

static void test_state_dir_has_one_user(void **state)
{
	struct place *p = *state;
	struct store_options options = {.create = true, .state_dir = at(p, "../state")};
	cleanup_store struct store *s = opened(p, &options);

	assert_non_null(s);

	assert_int_equal(mkdir(at(p, "../other"), 0755), 0);
	assert_int_equal(open_result(at(p, "../other"), &options), STORE_LOCKED);
}

static void test_state_dir_inside_the_root(void **state)
{
	struct place *p = *state;
	struct store_options options = {.create = true, .state_dir = p->root};

	assert_int_equal(open_result(p->root, &options), STORE_OVERLAP);
	assert_int_equal(mkdir(at(p, "deep"), 0755), 0);
	options.state_dir = at(p, "deep/state");
	assert_int_equal(open_result(p->root, &options), STORE_OVERLAP);
	options.state_dir = at(p, "../no/such/place");
	assert_int_equal(open_result(p->root, &options), STORE_NO_INDEX);
}

/* --- who and where --- */

static void test_overlap(void **state)
{
	struct place *p = *state;

	assert_int_equal(open_result(p->root, &create), 0);
	assert_int_equal(mkdir(at(p, "a"), 0755), 0);
	assert_int_equal(mkdir(at(p, "a/b"), 0755), 0);
	assert_int_equal(open_result(at(p, "a/b"), &create), STORE_OVERLAP);
	assert_int_equal(symlink("a/b", at(p, "link")), 0);
	assert_int_equal(open_result(at(p, "link"), &create), STORE_OVERLAP);
	assert_int_equal(access(at(p, "a/b/.syncd"), F_OK), -1);
	assert_int_equal(mkdir(at(p, "../beside"), 0755), 0);
	assert_int_equal(open_result(at(p, "../beside"), &create), 0);
	/* where anyone may write, anyone's .syncd is no reason */
	if (!geteuid()) {
		assert_int_equal(mkdir(at(p, "../.syncd"), 0755), 0);
		assert_int_equal(chown(at(p, "../.syncd"), 777, 777), 0);
		write_text(at(p, "../.syncd/identity"), "x");
		assert_int_equal(open_result(at(p, "../beside"), NULL), 0);
		assert_int_equal(chown(at(p, "../.syncd"), 0, 0), 0);
		assert_int_equal(open_result(at(p, "../beside"), NULL), STORE_OVERLAP);
		remove_tree(at(p, "../.syncd"));
	}
	/* a .syncd that is not a folder's */
	assert_int_equal(mkdir(at(p, "../.syncd"), 0755), 0);
	assert_int_equal(open_result(at(p, "../beside"), NULL), 0);
}

static void test_relative_path_is_made_absolute(void **state)
{
	struct place *p = *state;
	cleanup_store struct store *s = NULL;
	char here[512];

	assert_non_null(getcwd(here, sizeof(here)));
	assert_int_equal(chdir(p->base), 0);
	assert_int_equal(store_open(&s, "root", &create), 0);
	assert_int_equal(chdir("/"), 0);
	assert_int_equal(store_check_root(s), 0);
	assert_string_equal(store_path(s), p->root);
	assert_int_equal(chdir(here), 0);
}

static void test_syncd_must_be_a_directory(void **state)
{
	struct place *p = *state;
	struct stat st;

	assert_int_equal(mkdir(at(p, "../elsewhere"), 0755), 0);
	assert_int_equal(symlink("../elsewhere", at(p, ".syncd")), 0);
	assert_true(open_result(p->root, &create) < 0);
	assert_int_equal(stat(at(p, "../elsewhere/lock"), &st), -1);
	assert_int_equal(unlink(at(p, ".syncd")), 0);
	write_text(at(p, ".syncd"), "");
	assert_true(open_result(p->root, &create) < 0);
}

static void test_open_modes_are_closed(void **state)
{
	struct place *p = *state;
	struct stat st;

	assert_int_equal(open_result(p->root, &create), 0);
	assert_int_equal(chmod(at(p, ".syncd"), 0777), 0);
	assert_int_equal(open_result(p->root, NULL), 0);
	assert_int_equal(stat(at(p, ".syncd"), &st), 0);
	assert_int_equal(st.st_mode & 07777, 0700);
}

static void assert_owned(const struct place *p, const char *name, uid_t uid, gid_t gid)
{
	struct stat st;

	assert_int_equal(lstat(at(p, name), &st), 0);
	assert_int_equal(st.st_uid, uid);
	assert_int_equal(st.st_gid, gid);
}

static void test_owner_of_the_root_owns_syncd(void **state)
{
	static const char *const parts[] = {".syncd", ".syncd/identity", ".syncd/lock",
		".syncd/index", ".syncd/staging", ".syncd/index/data.mdb",
		".syncd/trash", ".syncd/CACHEDIR.TAG"};
	struct place *p = *state;
	uint32_t uid = 99;

	assert_int_equal(store_owner(p->root, &uid), 0);
	assert_int_equal(uid, geteuid());
	assert_int_equal(store_owner(at(p, "absent"), &uid), STORE_NO_ROOT);
	if (geteuid())
		skip();
	assert_int_equal(chown(p->root, 1234, 4321), 0);
	assert_int_equal(store_owner(p->root, &uid), 0);
	assert_int_equal(uid, 1234);
	assert_int_equal(open_result(p->root, &create), 0);
	for (size_t k = 0; k < ARRAY_SIZE(parts); k++)
		assert_owned(p, parts[k], 1234, 4321);
	assert_int_equal(open_result(p->root, NULL), 0);

	/* who can write into the root, but does not own it, can't plant a .syncd */
	assert_int_equal(chown(at(p, ".syncd"), 777, 777), 0);
	assert_int_equal(open_result(p->root, NULL), STORE_DENIED);
	assert_int_equal(store_owner(p->root, &uid), 0);
	assert_int_equal(uid, 777);
}

static void test_another_user(void **state)
{
	struct place *p = *state;
	int status;
	pid_t child;

	if (geteuid())
		skip();
	assert_int_equal(chmod(p->base, 0755), 0);
	assert_int_equal(open_result(p->root, &create), 0);
	assert_int_equal(mkdir(at(p, "../theirs"), 0755), 0);
	assert_int_equal(chown(at(p, "../theirs"), 1234, 1234), 0);
	assert_int_equal(
		open_result(at(p, "../theirs"), &create), 0); /* made by root, for its owner */
	child = fork();
	assert_true(child >= 0);
	if (!child) {
		struct store *s;

		if (setresgid(1234, 1234, 1234) || setresuid(1234, 1234, 1234))
			_exit(9);
		if (store_open(&s, p->root, NULL) != STORE_DENIED)
			_exit(1);
		if (store_open(&s, at(p, "../root/absent"), NULL) != STORE_NO_ROOT)
			_exit(2);
		if (store_open(&s, at(p, "../theirs"), NULL))
			_exit(3);
		if (join(s, 5, HASH_SHA256))
			_exit(4);
		store_close(s);
		_exit(0);
	}
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_int_equal(status, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_no_root, setup, teardown),
		cmocka_unit_test_setup_teardown(
			test_without_create_nothing_is_made, setup, teardown),
		cmocka_unit_test_setup_teardown(test_create_and_reopen, setup, teardown),
		cmocka_unit_test_setup_teardown(test_algorithm, setup, teardown),
		cmocka_unit_test_setup_teardown(test_lock, setup, teardown),
		cmocka_unit_test_setup_teardown(
			test_a_killed_holder_holds_nothing, setup, teardown),
		cmocka_unit_test_setup_teardown(
			test_copied_root_is_another_replica, setup, teardown),
		cmocka_unit_test_setup_teardown(
			test_moved_root_is_the_same_replica, setup, teardown),
		cmocka_unit_test_setup_teardown(test_index_lost, setup, teardown),
		cmocka_unit_test_setup_teardown(test_identity_lost, setup, teardown),
		cmocka_unit_test_setup_teardown(test_foreign_identity, setup, teardown),
		cmocka_unit_test_setup_teardown(test_damaged_identity, setup, teardown),
		cmocka_unit_test_setup_teardown(test_damaged_index, setup_in_memory, teardown),
		cmocka_unit_test_setup_teardown(test_damaged_in_the_middle, setup_in_memory, teardown),
		cmocka_unit_test_setup_teardown(test_damaged_identity_row, setup, teardown),
		cmocka_unit_test_setup_teardown(test_damaged_index_of_nobody, setup, teardown),
		cmocka_unit_test_setup_teardown(test_damaged_index_in_state_dir, setup, teardown),
		cmocka_unit_test_setup_teardown(test_damaged_again_and_again, setup, teardown),
		cmocka_unit_test_setup_teardown(test_killed_while_rebuilding, setup_in_memory, teardown),
		cmocka_unit_test_setup_teardown(test_root_replaced, setup, teardown),
		cmocka_unit_test_setup_teardown(test_join, setup, teardown),
		cmocka_unit_test_setup_teardown(test_join_compares_first, setup, teardown),
		cmocka_unit_test_setup_teardown(test_check_while_ids_change, setup, teardown),
		cmocka_unit_test_setup_teardown(test_former_ids, setup, teardown),
		cmocka_unit_test_setup_teardown(test_version_1_is_read, setup, teardown),
		cmocka_unit_test_setup_teardown(test_mounts_are_counted, setup, teardown),
		cmocka_unit_test_setup_teardown(
			test_join_with_another_algorithm_drops_rows, setup, teardown),
		cmocka_unit_test_setup_teardown(test_renew, setup, teardown),
		cmocka_unit_test_setup_teardown(
			test_crash_before_anything_is_named, setup, teardown),
		cmocka_unit_test_setup_teardown(
			test_stray_staged_identity_means_nothing, setup, teardown),
		cmocka_unit_test_setup_teardown(
			test_killed_while_creating, setup_in_memory, teardown),
		cmocka_unit_test_setup_teardown(
			test_killed_while_joining, setup_in_memory, teardown),
		cmocka_unit_test_setup_teardown(
			test_killed_while_renewing, setup_in_memory, teardown),
		cmocka_unit_test_setup_teardown(
			test_killed_while_a_copy_is_recognised, setup_in_memory, teardown),
		cmocka_unit_test_setup_teardown(test_state_dir, setup, teardown),
		cmocka_unit_test_setup_teardown(test_state_dir_has_one_user, setup, teardown),
		cmocka_unit_test_setup_teardown(test_state_dir_inside_the_root, setup, teardown),
		cmocka_unit_test_setup_teardown(test_overlap, setup, teardown),
		cmocka_unit_test_setup_teardown(
			test_relative_path_is_made_absolute, setup, teardown),
		cmocka_unit_test_setup_teardown(test_syncd_must_be_a_directory, setup, teardown),
		cmocka_unit_test_setup_teardown(test_open_modes_are_closed, setup, teardown),
		cmocka_unit_test_setup_teardown(test_owner_of_the_root_owns_syncd, setup, teardown),
		cmocka_unit_test_setup_teardown(test_another_user, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
