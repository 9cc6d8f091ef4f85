/* tests/unit/transfer/test_intent.c — the intents' codec: round trips, and bytes that nobody wrote.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "transfer/intent.h"

static struct record sample_record(void)
{
	struct record r = {
		.live = true,
		.kind = RECORD_FILE,
		.content = {.size = 5, .chunk_bits = 15, .height = 0},
		.mode = 0644,
		.uid = 1000,
		.gid = 100,
		.mtime_ns = 123456789,
	};

	memset(r.content.root.bytes, 7, HASH_BYTES);
	assert_int_equal(version_dots_add(&r.dots, (struct version_dot){5, 3}), 0);
	assert_int_equal(version_dots_add(&r.adots, (struct version_dot){5, 3}), 0);
	assert_int_equal(version_dots_add(&r.mdots, (struct version_dot){5, 3}), 0);
	assert_int_equal(version_vector_raise(&r.vv, (struct version_dot){5, 3}, NULL), 0);
	return r;
}

static struct intent sample(void)
{
	return (struct intent){
		.op = INTENT_PUT,
		.fate = INTENT_ASIDE,
		.becomes = INTENT_TAKEN,
		.place = ROW_ON_DISK,
		.path = strdup("d/report.txt"),
		.aside = strdup("d/report.sync-conflict-070707070707.txt"),
		.preserve_owner = true,
		.staged = strdup("apply-1"),
		.displaced = strdup("apply-1"),
		.new_kind = RECORD_FILE,
		.staged_stamp = {.ino = 11, .generation = 4, .size = 5, .mode = 0644},
		.old_kind = RECORD_FILE,
		.old = {.ino = 12, .size = 3, .mtime_ns = -5, .mode = 0600, .nlink = 2},
		.had_row = true,
		.seq = 99,
		.has_record = true,
		.record = sample_record(),
		.source = 77,
	};
}

static int decode(const void *p, size_t n, struct intent *ret)
{
	struct cursor c = cursor_over(p, n);

	*ret = (struct intent){0};
	intent_get(&c, ret);
	return cursor_finish(&c);
}

static int decode_only(const struct buf *b)
{
	struct intent i;
	int r = decode(b->data, b->len, &i);

	intent_deinit(&i);
	return r;
}

static void test_round_trip(void **state)
{
	struct intent i = sample(), o;
	struct buf a = BUF_INIT, b = BUF_INIT;

	(void)state;
	intent_put(&a, &i);
	assert_int_equal(buf_error(&a), 0);
	assert_int_equal(decode(a.data, a.len, &o), 0);
	assert_string_equal(o.path, i.path);
	assert_string_equal(o.aside, i.aside);
	assert_string_equal(o.staged, "apply-1");
	assert_int_equal(o.staged_stamp.ino, 11);
	assert_int_equal(o.staged_stamp.generation, 4);
	assert_int_equal(o.old.mtime_ns, -5);
	assert_true(o.preserve_owner && o.had_row && o.has_record && !o.aside_there);
	assert_int_equal(o.seq, 99);
	assert_int_equal(o.source, 77);
	assert_true(record_equal(&o.record, &i.record));
	intent_put(&b, &o);
	assert_int_equal(a.len, b.len);
	assert_memory_equal(a.data, b.data, a.len);
	intent_deinit(&i);
	intent_deinit(&o);
	buf_deinit(&a);
	buf_deinit(&b);
}

static void test_without_record(void **state)
{
	struct intent i = {
		.op = INTENT_PUT,
		.becomes = INTENT_UNCHANGED,
		.place = ROW_IMPLIED,
		.path = strdup("d"),
		.staged = strdup("apply-2"),
		.new_kind = RECORD_DIRECTORY,
	};
	struct intent o;
	struct buf b = BUF_INIT;

	(void)state;
	intent_put(&b, &i);
	assert_int_equal(decode(b.data, b.len, &o), 0);
	assert_false(o.has_record);
	assert_null(o.aside);
	assert_null(o.displaced);
	intent_deinit(&i);
	intent_deinit(&o);
	buf_deinit(&b);
}

/* What is moved came with version 2, and is alone in it. */
static void test_versions(void **state)
{
	struct intent i = {
		.op = INTENT_REMOVE,
		.fate = INTENT_MOVED,
		.becomes = INTENT_UNCHANGED,
		.path = strdup("d"),
		.displaced = strdup("apply-3"),
	};
	struct buf b = BUF_INIT;

	(void)state;
	intent_put(&b, &i);
	assert_int_equal(b.data[0], 2);
	assert_int_equal(decode_only(&b), 0);
	b.data[0] = 1;
	assert_int_equal(decode_only(&b), -EBADMSG);
	buf_clear(&b);
	i.fate = INTENT_TRASH;
	intent_put(&b, &i);
	assert_int_equal(b.data[0], 1);
	assert_int_equal(decode_only(&b), 0);
	b.data[0] = 2;
	assert_int_equal(decode_only(&b), -EBADMSG);
	intent_deinit(&i);
	buf_deinit(&b);
}

/* Every prefix is refused, and so is anything behind. */
static void test_cut(void **state)
{
	struct intent i = sample(), o;
	struct buf b = BUF_INIT;

	(void)state;
	intent_put(&b, &i);
	for (size_t n = 0; n < b.len; n++) {
		uint8_t *exact = malloc(n + !n);

		memcpy(exact, b.data, n);
		assert_int_equal(decode(exact, n, &o), -EBADMSG);
		intent_deinit(&o);
		free(exact);
	}
	put_u8(&b, 0);
	assert_int_equal(decode_only(&b), -EBADMSG);
	intent_deinit(&i);
	buf_deinit(&b);
}

static void refused(struct intent *i)
{
	struct buf b = BUF_INIT;

	intent_put(&b, i);
	assert_int_equal(buf_error(&b), 0);
	assert_int_equal(decode_only(&b), -EBADMSG);
	buf_deinit(&b);
}

static void set(char **field, const char *value)
{
	free(*field);
	*field = value ? strdup(value) : NULL;
}

static void test_unsound(void **state)
{
	struct intent i = sample();

	(void)state;
	set(&i.path, "../d");
	refused(&i);
	set(&i.path, "d/.syncd/index");
	refused(&i);
	set(&i.path, "d");
	set(&i.staged, "a/b");
	refused(&i);
	set(&i.staged, "..");
	refused(&i);
	set(&i.staged, NULL);
	refused(&i);
	set(&i.staged, "x");
	set(&i.displaced, NULL);
	refused(&i);
	set(&i.displaced, "x");
	set(&i.aside, NULL);
	refused(&i);
	i.fate = INTENT_TRASH;
	i.op = INTENT_PUT_ASIDE;
	refused(&i);
	i.op = INTENT_SET + 1;
	refused(&i);
	i.op = INTENT_REMOVE; /* with a staged object */
	refused(&i);
	set(&i.staged, NULL);
	i.fate = INTENT_MOVED + 1;
	refused(&i);
	i.fate = INTENT_TRASH;
	i.becomes = 0;
	refused(&i);
	i.becomes = INTENT_TAKEN;
	i.has_record = false;
	refused(&i);
	intent_deinit(&i);
}

/* No byte that is turned makes it read outside or leak (for the sanitizers). */
static void test_turned_bytes(void **state)
{
	struct intent i = sample();
	struct buf b = BUF_INIT;

	(void)state;
	intent_put(&b, &i);
	for (size_t k = 0; k < b.len; k++)
		for (unsigned bit = 0; bit < 8; bit++) {
			b.data[k] ^= (uint8_t)(1u << bit);
			(void)decode_only(&b);
			b.data[k] ^= (uint8_t)(1u << bit);
		}
	assert_int_equal(decode_only(&b), 0);
	intent_deinit(&i);
	buf_deinit(&b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_round_trip),
		cmocka_unit_test(test_without_record),
		cmocka_unit_test(test_versions),
		cmocka_unit_test(test_cut),
		cmocka_unit_test(test_unsound),
		cmocka_unit_test(test_turned_bytes),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
