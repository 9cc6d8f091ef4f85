/* tests/unit/tombstones/test_members.c — the table of members and its codec. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/error.h"
#include "tombstones/members.h"

static void fill(struct members *m)
{
	static const uint64_t ids[] = {7, UINT64_MAX, 1, 3, 7, 3};

	for (size_t i = 0; i < ARRAY_SIZE(ids); i++) {
		struct member *x;

		assert_int_equal(members_add(m, ids[i], &x), 0);
		assert_int_equal(x->replica, ids[i]);
	}
	free(members_find(m, 3)->name);
	members_find(m, 3)->name = strdup("host \xc3\xa4");
	members_find(m, 3)->seen_ns = -5;
	members_find(m, 3)->excepted = true;
	members_find(m, 7)->retired = true;
	members_find(m, 7)->seen_ns = INT64_MAX;
	assert_int_equal(
		version_vector_raise(&members_find(m, 7)->k, (struct version_dot){42, 9}, NULL), 0);
}

static void test_find_and_add(void **state)
{
	struct members m = {0};

	(void)state;
	assert_null(members_find(&m, 1));
	fill(&m);
	assert_int_equal(m.n, 4);
	for (size_t i = 1; i < m.n; i++)
		assert_true(m.v[i - 1].replica < m.v[i].replica);
	assert_null(members_find(&m, 2));
	assert_null(members_find(&m, 0));
	assert_string_equal(members_find(&m, 1)->name, "");
	members_deinit(&m);
	assert_int_equal(m.n, 0);
	members_deinit(&m);
}

static void test_limit(void **state)
{
	struct members m = {0};
	struct member *x = NULL;

	(void)state;
	for (uint64_t i = MEMBERS_MAX; i > 0; i--)
		assert_int_equal(members_add(&m, i, &x), 0);
	x = NULL;
	assert_int_equal(members_add(&m, MEMBERS_MAX + 1, &x), -ENOSPC);
	assert_null(x);
	assert_int_equal(members_add(&m, 5, &x), 0);
	assert_int_equal(x->replica, 5);
	members_deinit(&m);
}

static void test_round_trip(void **state)
{
	struct members m = {0}, back = {0};
	struct buf b = BUF_INIT;
	struct cursor c;

	(void)state;
	fill(&m);
	members_put(&b, &m);
	assert_int_equal(buf_error(&b), 0);
	c = cursor_over(b.data, b.len);
	members_get(&c, &back);
	assert_int_equal(cursor_finish(&c), 0);
	assert_int_equal(back.n, m.n);
	for (size_t i = 0; i < m.n; i++) {
		assert_int_equal(back.v[i].replica, m.v[i].replica);
		assert_string_equal(back.v[i].name, m.v[i].name);
		assert_true(version_vector_equal(&back.v[i].k, &m.v[i].k));
		assert_int_equal(back.v[i].excepted, m.v[i].excepted);
		assert_int_equal(back.v[i].retired, m.v[i].retired);
		assert_true(back.v[i].seen_ns == m.v[i].seen_ns);
	}
	/* every cut fails, and leaves nothing that leaks */
	for (size_t n = 0; n < b.len; n++) {
		struct members part = {0};

		c = cursor_over(b.data, n);
		members_get(&c, &part);
		assert_int_equal(cursor_finish(&c), -EBADMSG);
		members_deinit(&part);
	}
	members_deinit(&back);
	members_deinit(&m);
	buf_deinit(&b);
}

static int decode(const struct buf *b)
{
	struct cursor c = cursor_over(b->data, b->len);
	struct members m = {0};

	members_get(&c, &m);
	members_deinit(&m);
	return cursor_finish(&c);
}

static void put_member(struct buf *b, uint64_t replica, const void *name, size_t n, uint8_t flags)
{
	put_u64(b, replica);
	put_string(b, name, n);
	put_u8(b, flags);
	put_u64(b, 0);
	put_varint(b, 0);
}

static void test_hostile(void **state)
{
	char name[MEMBER_NAME_BYTES_MAX + 1];
	struct {
		uint64_t first, second;
		size_t name_bytes;
		uint8_t flags;
		int expected;
	} cases[] = {
		{1, 2, 1, 3, 0},
		{1, 2, MEMBER_NAME_BYTES_MAX, 0, 0},
		{2, 1, 1, 0, -EBADMSG}, /* order */
		{1, 1, 1, 0, -EBADMSG}, /* twice */
		{0, 1, 1, 0, -EBADMSG}, /* no id */
		{1, 2, 1, 4, -EBADMSG}, /* an unknown flag */
		{1, 2, MEMBER_NAME_BYTES_MAX + 1, 0, -EBADMSG},
	};
	struct buf b = BUF_INIT;

	(void)state;
	memset(name, 'n', sizeof(name));
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		buf_clear(&b);
		put_varint(&b, 2);
		put_member(&b, cases[i].first, name, 1, 0);
		put_member(&b, cases[i].second, name, cases[i].name_bytes, cases[i].flags);
		assert_int_equal(decode(&b), cases[i].expected);
	}
	buf_clear(&b);
	put_varint(&b, 1);
	put_member(&b, 1, "a\0b", 3, 0);
	assert_int_equal(decode(&b), -EBADMSG);
	buf_clear(&b);
	put_varint(&b, MEMBERS_MAX + 1);
	assert_int_equal(decode(&b), -EBADMSG);
	buf_deinit(&b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_find_and_add),
		cmocka_unit_test(test_limit),
		cmocka_unit_test(test_round_trip),
		cmocka_unit_test(test_hostile),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
