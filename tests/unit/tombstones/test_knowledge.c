/* tests/unit/tombstones/test_knowledge.c — K with exceptions: events, learning, forgetting, codec.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/error.h"
#include "tombstones/knowledge.h"

/* "1:3 2:1" raises v by two dots. */
static void raise_all(struct version_vector *v, const char *spec, const struct version_lineage *l)
{
	unsigned long long inc, counter;
	int n;

	for (; sscanf(spec, " %llu:%llu%n", &inc, &counter, &n) == 2; spec += n)
		assert_int_equal(version_vector_raise(v, (struct version_dot){inc, counter}, l), 0);
}

static void assert_vector(const struct version_vector *v, const char *spec)
{
	struct version_vector expected = {0};

	raise_all(&expected, spec, NULL);
	assert_true(version_vector_equal(v, &expected));
	version_vector_deinit(&expected);
}

/* An exception, through the codec, which is the only door for any vector. */
static struct knowledge make(const char *k, size_t n, const char *const (*exceptions)[2])
{
	struct knowledge made = {0};
	struct version_vector v = {0};
	struct buf b = BUF_INIT;
	struct cursor c;

	raise_all(&v, k, NULL);
	version_vector_put(&b, &v);
	version_vector_deinit(&v);
	put_varint(&b, n);
	for (size_t i = 0; i < n; i++) {
		raise_all(&v, exceptions[i][1], NULL);
		put_string(&b, exceptions[i][0], strlen(exceptions[i][0]));
		version_vector_put(&b, &v);
		version_vector_deinit(&v);
	}
	c = cursor_over(b.data, b.len);
	knowledge_get(&c, &made);
	assert_int_equal(cursor_finish(&c), 0);
	buf_deinit(&b);
	return made;
}

#define MAKE(k, ...)                                                 \
	({                                                           \
		static const char *const list_[][2] = {__VA_ARGS__}; \
		make(k, ARRAY_SIZE(list_), list_);                   \
	})

static int learn(
	struct knowledge *me, const struct knowledge *peer, const char *skip1, const char *skip2)
{
	const char *skipped[] = {skip1, skip2, skip1};

	return knowledge_learn(me, peer, skipped,
		skip2	? 3
		: skip1 ? 1
			: 0,
		(struct version_dot){0, 0}, NULL);
}

static void test_learn_joins(void **state)
{
	struct knowledge me = make("1:5 2:3", 0, NULL), peer = make("2:7 3:1", 0, NULL);

	(void)state;
	assert_int_equal(learn(&me, &peer, NULL, NULL), 0);
	assert_vector(&me.k, "1:5 2:7 3:1");
	assert_int_equal(me.n, 0);
	assert_ptr_equal(knowledge_of(&me, "a"), &me.k);
	knowledge_deinit(&me);
	knowledge_deinit(&peer);
}

static void test_skipped_keep_what_they_had(void **state)
{
	struct knowledge me = make("1:5", 0, NULL), peer = make("2:7", 0, NULL),
			 stale = make("1:4", 0, NULL);

	(void)state;
	assert_int_equal(learn(&me, &peer, "z", "a"), 0);
	assert_int_equal(me.n, 2);
	assert_string_equal(me.exceptions[0].path, "a");
	assert_string_equal(me.exceptions[1].path, "z");
	assert_vector(knowledge_of(&me, "a"), "1:5");
	assert_vector(knowledge_of(&me, "z"), "1:5");
	assert_vector(knowledge_of(&me, "m"), "1:5 2:7");
	/* a session that dealt with both lifts them */
	assert_int_equal(learn(&me, &stale, "z", NULL), 0);
	assert_int_equal(me.n, 2); /* but not one that knew less */
	assert_int_equal(learn(&me, &peer, "z", NULL), 0);
	assert_int_equal(me.n, 1);
	assert_string_equal(me.exceptions[0].path, "z");
	assert_int_equal(learn(&me, &peer, NULL, NULL), 0);
	assert_int_equal(me.n, 0);
	/* what was skipped when there was nothing to learn is no exception */
	assert_int_equal(learn(&me, &peer, "a", "b"), 0);
	assert_int_equal(me.n, 0);
	knowledge_deinit(&me);
	knowledge_deinit(&peer);
	knowledge_deinit(&stale);
}

static void test_exceptions_of_the_peer(void **state)
{
	struct knowledge me = MAKE("1:5", {"both", "1:2"}, {"mine", "1:3"});
	struct knowledge peer = MAKE("2:7", {"both", "2:1"}, {"theirs", "2:2"});

	(void)state;
	assert_int_equal(learn(&me, &peer, NULL, NULL), 0);
	assert_vector(&me.k, "1:5 2:7");
	assert_int_equal(me.n, 3);
	assert_vector(knowledge_of(&me, "both"), "1:2 2:1");
	assert_vector(knowledge_of(&me, "mine"), "1:3 2:7");
	assert_vector(knowledge_of(&me, "theirs"), "1:5 2:2");
	knowledge_deinit(&me);
	knowledge_deinit(&peer);
}

static void test_own_events_stay_known(void **state)
{
	struct knowledge me = MAKE("1:5", {"forgotten", "2:1"}, {"waits", "1:5"}),
			 peer = make("2:7", 0, NULL);
	const char *skipped[] = {"forgotten", "waits", "new"};

	(void)state;
	assert_int_equal(knowledge_event(&me, (struct version_dot){1, 9}, NULL), 0);
	assert_vector(&me.k, "1:9");
	assert_vector(knowledge_of(&me, "waits"), "1:9");
	assert_vector(knowledge_of(&me, "forgotten"), "2:1"); /* it did not know 1:5 */
	assert_int_equal(
		knowledge_learn(&me, &peer, skipped, 3, (struct version_dot){1, 9}, NULL), 0);
	assert_vector(knowledge_of(&me, "waits"), "1:9");
	assert_vector(knowledge_of(&me, "new"), "1:9");
	assert_vector(knowledge_of(&me, "forgotten"), "2:1");
	/* a comparison deals with it: then it knows what the peer did, and not our own */
	assert_int_equal(
		knowledge_learn(&me, &peer, skipped + 1, 2, (struct version_dot){1, 9}, NULL), 0);
	assert_vector(knowledge_of(&me, "forgotten"), "2:7");
	knowledge_deinit(&me);
	knowledge_deinit(&peer);
}

static void test_event_with_lineage(void **state)
{
	static const struct version_incarnation line[] = {
		{1, 0, 0, 50}, {9, 1, 5, 50}, {2, 0, 0, 60}};
	struct knowledge me = MAKE("1:5 2:4", {"forgotten", ""}, {"waits", "1:5 2:1"});
	struct version_lineage *l;

	(void)state;
	assert_int_equal(version_lineage_new(&l), 0);
	for (size_t i = 0; i < ARRAY_SIZE(line); i++)
		assert_int_equal(version_lineage_add(l, &line[i]), 0);
	/* the first event of a new incarnation implies those of its parent, and replaces their
	 * entry */
	assert_int_equal(knowledge_event(&me, (struct version_dot){9, 6}, l), 0);
	assert_vector(&me.k, "2:4 9:6");
	assert_vector(knowledge_of(&me, "waits"), "2:1 9:6");
	assert_int_equal(knowledge_of(&me, "forgotten")->n, 0);
	assert_int_equal(knowledge_event(&me, (struct version_dot){9, 7}, l), 0);
	assert_vector(knowledge_of(&me, "waits"), "2:1 9:7");
	assert_int_equal(knowledge_of(&me, "forgotten")->n, 0);
	knowledge_deinit(&me);
	version_lineage_free(l);
}

static void test_learn_with_lineage(void **state)
{
	static const struct version_incarnation line[] = {{1, 0, 0, 50}, {9, 1, 5, 50}};
	struct knowledge me = MAKE("1:5", {"p", "1:2"}), peer = make("9:6", 0, NULL);
	const char *skipped[] = {"q"};
	struct version_lineage *l;

	(void)state;
	assert_int_equal(version_lineage_new(&l), 0);
	for (size_t i = 0; i < ARRAY_SIZE(line); i++)
		assert_int_equal(version_lineage_add(l, &line[i]), 0);
	assert_int_equal(knowledge_learn(&me, &peer, skipped, 1, (struct version_dot){0, 0}, l), 0);
	assert_vector(&me.k, "9:6"); /* normal form */
	assert_int_equal(me.n, 1);   /* p is dealt with: 9:6 implies all of 1 */
	assert_vector(knowledge_of(&me, "q"), "1:5");
	knowledge_deinit(&me);
	knowledge_deinit(&peer);
	version_lineage_free(l);
}

static void test_forget(void **state)
{
	struct knowledge me = MAKE("1:5 2:7", {"m", "1:4"}), empty = {0};

	(void)state;
	assert_int_equal(knowledge_forget(&me, "a"), 0);
	assert_int_equal(knowledge_forget(&me, "z"), 0);
	assert_int_equal(knowledge_forget(&me, "m"), 0);
	assert_int_equal(knowledge_forget(&me, "n"), 0);
	assert_int_equal(me.n, 4);
	for (size_t i = 0; i < me.n; i++) {
		assert_int_equal(me.exceptions[i].vector.n, 0);
		assert_true(i == 0 || strcmp(me.exceptions[i - 1].path, me.exceptions[i].path) < 0);
	}
	assert_int_equal(knowledge_forget(&empty, "a"), 0);
	assert_int_equal(empty.n, 0);
	knowledge_deinit(&me);
}

static void test_limit(void **state)
{
	char names[KNOWLEDGE_EXCEPTIONS_MAX + 1][8];
	const char *skipped[KNOWLEDGE_EXCEPTIONS_MAX + 1];
	struct knowledge me = make("1:5", 0, NULL), peer = make("2:7", 0, NULL), before = {0};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		snprintf(names[i], sizeof(names[i]), "f%05zu", ARRAY_SIZE(names) - i);
		skipped[i] = names[i];
	}
	assert_int_equal(knowledge_copy(&before, &me), 0);
	assert_int_equal(knowledge_learn(&me, &peer, skipped, ARRAY_SIZE(skipped),
				 (struct version_dot){0, 0}, NULL),
		KNOWLEDGE_FULL);
	assert_true(knowledge_equal(&me, &before));
	assert_int_equal(knowledge_learn(&me, &peer, skipped, KNOWLEDGE_EXCEPTIONS_MAX,
				 (struct version_dot){0, 0}, NULL),
		0);
	assert_int_equal(me.n, KNOWLEDGE_EXCEPTIONS_MAX);
	for (size_t i = 1; i < me.n; i++)
		assert_true(strcmp(me.exceptions[i - 1].path, me.exceptions[i].path) < 0);
	assert_int_equal(knowledge_forget(&me, "another"), -ENOSPC);
	assert_int_equal(knowledge_forget(&me, names[0]), 0);
	knowledge_deinit(&me);
	knowledge_deinit(&peer);
	knowledge_deinit(&before);
}

/* Few exceptions, but with long paths: full by bytes, so that what was learnt can always be encoded
 * and decoded. */
static void test_limit_of_bytes(void **state)
{
	static char paths[300][4001];
	const char *skipped[ARRAY_SIZE(paths)];
	struct knowledge me = make("1:5", 0, NULL), peer = make("2:7", 0, NULL);
	struct buf b = BUF_INIT;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(paths); i++) {
		for (size_t at = 0; at < 4000; at++)
			paths[i][at] = at % 200 == 199 ? '/' : 'd';
		snprintf(paths[i] + 3990, 11, "%05zu", i);
		skipped[i] = paths[i];
	}
	assert_int_equal(
		knowledge_learn(&me, &peer, skipped, 300, (struct version_dot){0, 0}, NULL),
		KNOWLEDGE_FULL);
	assert_int_equal(
		knowledge_learn(&me, &peer, skipped, 240, (struct version_dot){0, 0}, NULL), 0);
	knowledge_put(&b, &me);
	assert_true(b.len < KNOWLEDGE_BYTES_MAX);
	buf_deinit(&b);
	knowledge_deinit(&me);
	knowledge_deinit(&peer);
}

static void test_round_trip(void **state)
{
	struct knowledge k = MAKE("1:5 2:7", {"a", ""}, {"a/b", "1:4"}, {"\xff", "2:7"}),
			 back = {0};
	struct buf b = BUF_INIT;
	struct cursor c;

	(void)state;
	knowledge_put(&b, &k);
	assert_int_equal(buf_error(&b), 0);
	c = cursor_over(b.data, b.len);
	knowledge_get(&c, &back);
	assert_int_equal(cursor_finish(&c), 0);
	assert_true(knowledge_equal(&k, &back));
	assert_int_equal(
		version_vector_raise(&back.exceptions[1].vector, (struct version_dot){7, 7}, NULL),
		0);
	assert_false(knowledge_equal(&k, &back));
	for (size_t n = 0; n < b.len; n++) {
		struct knowledge part = {0};

		c = cursor_over(b.data, n);
		knowledge_get(&c, &part);
		assert_int_equal(cursor_finish(&c), -EBADMSG);
		knowledge_deinit(&part);
	}
	knowledge_deinit(&k);
	knowledge_deinit(&back);
	buf_deinit(&b);
}

static int decode_paths(size_t n, const char *const *paths)
{
	struct knowledge k = {0};
	struct buf b = BUF_INIT;
	struct cursor c;

	put_varint(&b, 0);
	put_varint(&b, n);
	for (size_t i = 0; paths && i < n; i++) {
		put_string(&b, paths[i], strlen(paths[i]));
		put_varint(&b, 0);
	}
	c = cursor_over(b.data, b.len);
	knowledge_get(&c, &k);
	knowledge_deinit(&k);
	buf_deinit(&b);
	return cursor_finish(&c);
}

static void test_hostile(void **state)
{
	(void)state;
	assert_int_equal(decode_paths(2, (const char *const[]){"a", "b"}), 0);
	assert_int_equal(decode_paths(2, (const char *const[]){"b", "a"}), -EBADMSG);
	assert_int_equal(decode_paths(2, (const char *const[]){"a", "a"}), -EBADMSG);
	assert_int_equal(decode_paths(1, (const char *const[]){""}), -EBADMSG);
	assert_int_equal(decode_paths(1, (const char *const[]){"../a"}), -EBADMSG);
	assert_int_equal(decode_paths(1, (const char *const[]){"/a"}), -EBADMSG);
	assert_int_equal(decode_paths(KNOWLEDGE_EXCEPTIONS_MAX + 1, NULL), -EBADMSG);
	assert_int_equal(decode_paths(KNOWLEDGE_EXCEPTIONS_MAX, NULL), -EBADMSG);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_learn_joins),
		cmocka_unit_test(test_skipped_keep_what_they_had),
		cmocka_unit_test(test_exceptions_of_the_peer),
		cmocka_unit_test(test_own_events_stay_known),
		cmocka_unit_test(test_event_with_lineage),
		cmocka_unit_test(test_learn_with_lineage),
		cmocka_unit_test(test_forget),
		cmocka_unit_test(test_limit),
		cmocka_unit_test(test_limit_of_bytes),
		cmocka_unit_test(test_round_trip),
		cmocka_unit_test(test_hostile),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
