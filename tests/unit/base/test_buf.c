/* Every put has its get; what is damaged or hostile fails once, stickily, and reads as zeros. */
#include "base/buf.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/error.h"
#include "base/random.h"

static struct cursor cursor_over_buf(const struct buf *b)
{
	return cursor_over(b->data, b->len);
}

static void test_round_trip(void **state)
{
	struct buf b = BUF_INIT;
	const uint8_t *text;
	char raw[3], *copy;
	struct cursor c;
	size_t n;

	(void)state;
	put_u8(&b, 0xab);
	put_u16(&b, 0x1234);
	put_u32(&b, 0xdeadbeef);
	put_u64(&b, UINT64_MAX - 1);
	put_varint(&b, 300);
	put_bytes(&b, "raw", 3);
	put_string(&b, "a\0b", 3);
	put_string(&b, "", 0);
	put_string(&b, "name", 4);
	assert_int_equal(buf_error(&b), 0);

	c = cursor_over_buf(&b);
	assert_int_equal(cursor_left(&c), b.len);
	assert_int_equal(get_u8(&c), 0xab);
	assert_int_equal(get_u16(&c), 0x1234);
	assert_int_equal(get_u32(&c), 0xdeadbeef);
	assert_true(get_u64(&c) == UINT64_MAX - 1);
	assert_int_equal(get_varint(&c), 300);
	get_bytes(&c, raw, 3);
	assert_memory_equal(raw, "raw", 3);
	text = get_string(&c, 3, &n);
	assert_int_equal(n, 3);
	assert_memory_equal(text, "a\0b", 3);
	get_string(&c, 0, &n);
	assert_int_equal(n, 0);
	assert_int_equal(cursor_finish(&c), -EBADMSG); /* something is left */
	copy = get_text(&c, 4);
	assert_string_equal(copy, "name");
	free(copy);
	assert_int_equal(cursor_finish(&c), 0);
	buf_deinit(&b);
}

static void test_little_endian(void **state)
{
	struct buf b = BUF_INIT;

	(void)state;
	put_u16(&b, 0x0102);
	put_u32(&b, 0x03040506);
	put_u64(&b, 0x0708090a0b0c0d0e);
	assert_int_equal(b.len, 14);
	assert_memory_equal(b.data, "\x02\x01\x06\x05\x04\x03\x0e\x0d\x0c\x0b\x0a\x09\x08\x07", 14);
	buf_deinit(&b);
}

static void test_varint_edges(void **state)
{
	static const struct {
		uint64_t value;
		size_t bytes;
	} edges[] = {
		{0, 1},
		{1, 1},
		{127, 1},
		{128, 2},
		{16383, 2},
		{16384, 3},
		{UINT32_MAX, 5},
		{(UINT64_C(1) << 56) - 1, 8},
		{UINT64_C(1) << 56, 9},
		{(UINT64_C(1) << 63) - 1, 9},
		{UINT64_C(1) << 63, 10},
		{UINT64_MAX, 10},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(edges); i++) {
		struct buf b = BUF_INIT;
		struct cursor c;

		put_varint(&b, edges[i].value);
		assert_int_equal(b.len, edges[i].bytes);
		c = cursor_over_buf(&b);
		assert_true(get_varint(&c) == edges[i].value);
		assert_int_equal(cursor_finish(&c), 0);
		for (size_t cut = 0; cut < b.len; cut++) {
			c = cursor_over(b.data, cut);
			assert_true(get_varint(&c) == 0);
			assert_true(c.failed);
		}
		buf_deinit(&b);
	}
}

static void assert_varint_refused(const char *bytes, size_t n)
{
	struct cursor c = cursor_over(bytes, n);

	assert_true(get_varint(&c) == 0);
	assert_int_equal(cursor_left(&c), 0);
	assert_int_equal(cursor_finish(&c), -EBADMSG);
}

static void test_varint_hostile(void **state)
{
	(void)state;
	assert_varint_refused("\x80\x00", 2); /* zero, the long way */
	assert_varint_refused("\xff\x00", 2);
	assert_varint_refused("\x81\x80\x00", 3);
	assert_varint_refused("\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02", 10); /* 2^65 and more */
	assert_varint_refused("\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80", 10);
	assert_varint_refused("\xff\xff\xff\xff\xff\xff\xff\xff\xff\x81\x00", 11);
	assert_varint_refused("\xff\xff\xff\xff\xff\xff\xff\xff\xff\x7f", 10);
}

/* There is one encoding of a value: what decodes, encodes to the same bytes. */
static void test_varint_canonical(void **state)
{
	size_t decoded = 0;

	(void)state;
	for (int round = 0; round < 50000; round++) {
		struct buf b = BUF_INIT;
		uint8_t bytes[12];
		struct cursor c = cursor_over(bytes, sizeof(bytes));
		uint64_t v;

		random_bytes(bytes, sizeof(bytes));
		for (size_t i = random_below(10); i-- > 0;)
			bytes[i] |= 0x80;
		v = get_varint(&c);
		if (c.failed)
			continue;
		decoded++;
		put_varint(&b, v);
		assert_int_equal(b.len, sizeof(bytes) - cursor_left(&c));
		assert_memory_equal(b.data, bytes, b.len);
		buf_deinit(&b);
	}
	assert_true(decoded > 1000);
}

static void test_varint_max(void **state)
{
	struct cursor c = cursor_over("\x05\x06\x01", 3);

	(void)state;
	assert_int_equal(get_varint_max(&c, 5), 5);
	assert_false(c.failed);
	assert_int_equal(get_varint_max(&c, 5), 0);
	assert_true(c.failed);
}

static void test_failure_is_sticky(void **state)
{
	uint8_t bytes[] = {1, 2, 3, 4, 5, 6, 7, 8, 9};
	struct cursor c = cursor_over(bytes, sizeof(bytes));
	char room[4] = "xxx";
	size_t n = 99;

	(void)state;
	assert_int_equal(get_u8(&c), 1);
	cursor_fail(&c);
	assert_int_equal(cursor_left(&c), 0);
	assert_int_equal(get_u8(&c), 0);
	assert_int_equal(get_u16(&c), 0);
	assert_int_equal(get_u32(&c), 0);
	assert_true(get_u64(&c) == 0);
	assert_true(get_varint(&c) == 0);
	get_bytes(&c, room, sizeof(room));
	assert_memory_equal(room, "\0\0\0\0", 4);
	get_string(&c, 100, &n);
	assert_int_equal(n, 0);
	assert_null(get_text(&c, 100));
	assert_int_equal(cursor_finish(&c), -EBADMSG);
}

static void test_short_reads_fail(void **state)
{
	struct cursor c;
	uint8_t room[8];

	(void)state;
	c = cursor_over("1234567", 7);
	assert_true(get_u64(&c) == 0);
	assert_int_equal(cursor_finish(&c), -EBADMSG);
	c = cursor_over("123", 3);
	assert_int_equal(get_u32(&c), 0);
	assert_true(c.failed);
	c = cursor_over("123", 3);
	get_bytes(&c, room, 4);
	assert_memory_equal(room, "\0\0\0\0", 4);
	c = cursor_over(NULL, 0);
	assert_int_equal(get_u8(&c), 0);
	assert_true(c.failed);
}

static void test_nothing_is_a_message(void **state)
{
	struct cursor c = cursor_over(NULL, 0);

	(void)state;
	assert_int_equal(cursor_left(&c), 0);
	get_bytes(&c, NULL, 0);
	assert_int_equal(cursor_finish(&c), 0);
}

static void test_string_limits(void **state)
{
	static const char lies[] = "\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01zz";
	struct cursor c;
	size_t n = 9;

	(void)state;
	c = cursor_over("\x03"
			"abc",
		4);
	get_string(&c, 2, &n); /* longer than allowed */
	assert_int_equal(n, 0);
	assert_true(c.failed);
	c = cursor_over("\x04"
			"abc",
		4);
	get_string(&c, 100, &n); /* longer than there is */
	assert_int_equal(n, 0);
	assert_true(c.failed);
	c = cursor_over(lies, sizeof(lies) - 1);
	get_string(&c, SIZE_MAX, &n);
	assert_int_equal(n, 0);
	assert_true(c.failed);
	c = cursor_over(lies, sizeof(lies) - 1);
	assert_null(get_text(&c, SIZE_MAX)); /* fails before it asks for memory */
	assert_true(c.failed);
}

static void test_text_without_nul(void **state)
{
	struct cursor c = cursor_over("\x03"
				      "a\0b",
		4);
	char *empty;

	(void)state;
	assert_null(get_text(&c, 10));
	assert_int_equal(cursor_finish(&c), -EBADMSG);
	c = cursor_over("\x00", 1);
	empty = get_text(&c, 10);
	assert_string_equal(empty, "");
	assert_int_equal(cursor_finish(&c), 0);
	free(empty);
}

static void test_limit(void **state)
{
	struct buf b = {.max_bytes = 10};

	(void)state;
	put_u64(&b, 1);
	put_u16(&b, 2);
	assert_int_equal(buf_error(&b), 0);
	assert_int_equal(b.len, 10);
	put_u8(&b, 3);
	assert_int_equal(buf_error(&b), -EMSGSIZE);
	assert_int_equal(b.len, 10);
	assert_null(buf_reserve(&b, 0)); /* after failure */
	buf_clear(&b);
	assert_int_equal(buf_error(&b), 0);
	put_u16(&b, 5);
	put_bytes(&b, "123456789", 9);
	assert_int_equal(buf_error(&b), -EMSGSIZE);
	put_u8(&b, 1); /* would fit, but the message is spoilt */
	assert_int_equal(b.len, 2);
	buf_deinit(&b);
	assert_int_equal(b.max_bytes, 10);
	assert_null(b.data);
	assert_int_equal(b.len + b.cap + (size_t)-b.error, 0);
}

static void test_absurd_length(void **state)
{
	struct buf b = BUF_INIT;

	(void)state;
	put_u8(&b, 1);
	assert_null(buf_reserve(&b, SIZE_MAX));
	assert_int_equal(buf_error(&b), -EMSGSIZE);
	buf_clear(&b);
	put_u8(&b, 1);
	assert_null(buf_reserve(&b, SIZE_MAX - 1));
	assert_true(buf_error(&b) < 0);
	assert_int_equal(b.len, 1);
	buf_deinit(&b);
}

static void test_reserve_and_consume(void **state)
{
	struct buf b = BUF_INIT;
	uint8_t *room = buf_reserve(&b, 5);

	(void)state;
	assert_non_null(room);
	memcpy(room, "abcde", 5);
	assert_non_null(buf_reserve(&b, 0));
	buf_consume(&b, 0);
	assert_int_equal(b.len, 5);
	buf_consume(&b, 2);
	assert_int_equal(b.len, 3);
	assert_memory_equal(b.data, "cde", 3);
	put_u8(&b, 'f');
	assert_memory_equal(b.data, "cdef", 4);
	buf_consume(&b, 4);
	assert_int_equal(b.len, 0);
	put_u8(&b, 'g');
	buf_consume(&b, 100);
	assert_int_equal(b.len, 0);
	put_bytes(&b, NULL, 0);
	assert_int_equal(buf_error(&b), 0);
	buf_deinit(&b);
	buf_deinit(&b);
}

static void test_grows_far(void **state)
{
	struct buf b = BUF_INIT;
	struct cursor c;

	(void)state;
	for (uint32_t i = 0; i < 100000; i++)
		put_varint(&b, i * 2654435761u);
	assert_int_equal(buf_error(&b), 0);
	c = cursor_over_buf(&b);
	for (uint32_t i = 0; i < 100000; i++)
		if (get_varint(&c) != (uint32_t)(i * 2654435761u))
			fail();
	assert_int_equal(cursor_finish(&c), 0);
	buf_deinit(&b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_round_trip),
		cmocka_unit_test(test_little_endian),
		cmocka_unit_test(test_varint_edges),
		cmocka_unit_test(test_varint_hostile),
		cmocka_unit_test(test_varint_canonical),
		cmocka_unit_test(test_varint_max),
		cmocka_unit_test(test_failure_is_sticky),
		cmocka_unit_test(test_short_reads_fail),
		cmocka_unit_test(test_nothing_is_a_message),
		cmocka_unit_test(test_string_limits),
		cmocka_unit_test(test_text_without_nul),
		cmocka_unit_test(test_limit),
		cmocka_unit_test(test_absurd_length),
		cmocka_unit_test(test_reserve_and_consume),
		cmocka_unit_test(test_grows_far),
	};

	return cmocka_run_group_tests_name("base/buf", tests, NULL, NULL);
}
