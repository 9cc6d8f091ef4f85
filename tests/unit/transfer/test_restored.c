/*
 * tests/unit/transfer/test_restored.c — a replica that is put back while it runs, disk and memory (a snapshot of its machine), and
 * meets a peer that has seen its other past.
 */
#include <dirent.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#define WORLD_STOP() fail()
#include "tests/sim/world.h"
#include "tombstones/replica.c" /* what a snapshot holds of the memory */

struct snapshot {
	struct version_dot own;
	struct line line;
	struct acknowledged acknowledged;
};

static void command(const char *fmt, const char *a, const char *b)
{
	char line[2000];

	snprintf(line, sizeof(line), fmt, a, b);
	assert_int_equal(system(line), 0);
}

static struct snapshot snapshot_take(struct site *s)
{
	struct snapshot ret = {.own = s->replica->own, .line = s->replica->line};

	assert_true(s->replica->n_acknowledged <= 1);
	if (s->replica->n_acknowledged)
		ret.acknowledged = s->replica->acknowledged[0];
	command("cp -a %s/. %s.snapshot", s->root, s->root);
	return ret;
}

/* The disk as it was; the files of .syncd keep what they are known by. */
static void snapshot_restore(struct site *s, const struct snapshot *was)
{
	site_close(s);
	command("cd %s && find . -mindepth 1 -maxdepth 1 ! -name .syncd -exec rm -rf {} + && cp -a %s.snapshot kept", s->root, s->root);
	command("cd %s && for f in $(find .syncd -name data.mdb); do cat kept/$f >$f; done%s", s->root, "");
	command("cd %s && rm -rf kept/.syncd && cp -a kept/. . && rm -rf kept%s", s->root, "");
	site_open(s);
	s->replica->own = was->own;
	s->replica->line = was->line;
	if (was->acknowledged.peer)
		assert_int_equal(acknowledge(s->replica, was->acknowledged.peer, was->acknowledged.point), 0);
}

static const char *const texts[] = {"one\n", "two\n", "three\n", "four\n", "five\n", "six\n", "seven\n", "eight\n"};

static void write_all(struct site *s, const char *prefix, size_t n)
{
	char path[32];

	for (size_t i = 0; i < n; i++) {
		snprintf(path, sizeof(path), "%s%zu", prefix, i);
		site_write(s, path, texts[i]);
	}
}

static void expect_all(struct site *s, const char *prefix, size_t n)
{
	char path[32];

	for (size_t i = 0; i < n; i++) {
		snprintf(path, sizeof(path), "%s%zu", prefix, i);
		assert_string_equal(site_read(s, path), texts[i]);
	}
}

/* The contents of the conflict copies of a path, one after the other. */
static void copies_of(struct site *s, const char *path, char *ret, size_t n)
{
	char prefix[64];
	DIR *dir = opendir(s->root);
	struct dirent *e;

	snprintf(prefix, sizeof(prefix), "%s.sync-conflict-", path);
	*ret = '\0';
	while ((e = readdir(dir)))
		if (strncmp(e->d_name, prefix, strlen(prefix)) == 0)
			snprintf(ret + strlen(ret), n - strlen(ret), "%s", site_read(s, e->d_name));
	closedir(dir);
}

#define TOLERANT (UINT64_C(1) << 40) /* of failures, as a cut would be so far away */

/* Until both are the same; how many sessions were refused since the peer showed more than was counted. */
static unsigned meet(struct world *w)
{
	unsigned refused = 0;

	for (unsigned i = 0; i < 6; i++) {
		bool first = (w->seed + i) & 1;
		struct wire was;

		world_sync_with(w, &w->sites[!first], &w->sites[first], NULL, TOLERANT, &was);
		for (int k = 0; k < 2; k++)
			refused += was.end[k].site == &w->sites[0] && was.end[k].status.error == -ESTALE;
	}
	sites_expect_equal(&w->sites[0], &w->sites[1]);
	return refused;
}

static void two_pasts(struct world *w)
{
	struct site *a = &w->sites[0], *b = &w->sites[1];
	bool ended = w->seed & 2, late = w->seed & 4;
	struct snapshot snapshot;
	char copies[200];

	write_all(a, "file", 8);
	site_write(a, "both", "before\n");
	world_sync(w, a, b, NULL);
	if (late) { /* not acknowledged by anybody when the snapshot is taken */
		write_all(a, "late", 4);
		site_scan(a);
	}
	snapshot = snapshot_take(a);

	write_all(a, "new-in-one", 8);
	site_write(a, "both", "one past\n");
	site_write(a, "file0", "one past, too\n");
	site_remove(a, "file1");
	world_sync(w, b, a, NULL);

	snapshot_restore(a, &snapshot);
	site_scan(a);
	assert_int_equal(a->seen.events, 0);
	write_all(a, "new-in-two", 3);
	site_write(a, "both", "another past\n");
	site_scan(a);
	if (ended)
		replica_end_incarnation(a->replica);
	site_remove(a, "file2");
	site_write(a, "file3", "another past, too\n");
	site_scan(a);

	assert_int_equal(meet(w), 1);
	expect_all(a, "new-in-one", 8);
	expect_all(a, "new-in-two", 3);
	if (late)
		expect_all(a, "late", 4);
	assert_string_equal(site_read(a, "file0"), "one past, too\n");
	assert_int_equal(site_kind(a, "file1"), 0);
	assert_int_equal(site_kind(a, "file2"), 0);
	assert_string_equal(site_read(a, "file3"), "another past, too\n");
	copies_of(a, "both", copies, sizeof(copies));
	assert_true(strcmp(copies, "one past\n") == 0 || strcmp(copies, "another past\n") == 0);
	assert_string_not_equal(site_read(a, "both"), copies);
	assert_string_not_equal(site_read(a, "both"), "before\n");
	copies_of(a, "file", copies, sizeof(copies));
	assert_string_equal(copies, "");

	/* and on with it: nothing of this is left */
	site_remove(a, "new-in-one0");
	site_write(b, "file4", "from the peer\n");
	assert_int_equal(meet(w), 0);
	assert_int_equal(site_kind(b, "new-in-one0"), 0);
	assert_string_equal(site_read(a, "file4"), "from the peer\n");
}

static void test_two_pasts(void **state)
{
	const char *only = getenv("SEED");
	uint64_t from = only ? strtoull(only, NULL, 10) : 1;

	(void)state;
	for (uint64_t seed = from; seed < from + (only ? 1 : 16); seed++) {
		struct world w;

		world_begin(&w, seed, 2);
		w.trace = only;
		two_pasts(&w);
		world_end(&w);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_two_pasts),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
