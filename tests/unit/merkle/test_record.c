/* tests/unit/merkle/test_record.c — records and rows: copies, comparison, codec, and what a codec
 * must refuse. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "merkle/record.h"

static const struct version_dot d1 = {0x1111111111111111, 5}, d2 = {0x2222222222222222, 9},
				d3 = {0x3333333333333333, 2};

static void make(struct record *r, uint8_t kind)
{
	*r = (struct record){.live = kind, .kind = kind};
	version_vector_raise(&r->vv, d1, NULL);
	version_vector_raise(&r->vv, d2, NULL);
	version_dots_add(&r->dots, d2);
	if (!kind)
		return;
	r->mode = kind == RECORD_SYMLINK ? 0777 : 0644;
	r->uid = 1000;
	r->gid = UINT32_MAX;
	r->mtime_ns = -1234567890123;
	version_dots_add(&r->adots, d1);
	if (kind != RECORD_DIRECTORY)
		version_dots_add(&r->mdots, d2);
	if (kind == RECORD_FILE)
		r->content = (struct content){.size = 70000, .chunk_bits = 15, .height = 1};
	if (kind == RECORD_SYMLINK) {
		r->target = strdup("../there");
		r->content.size = 8;
	}
	if (kind != RECORD_DIRECTORY)
		memset(r->content.root.bytes, 0x5a, HASH_BYTES);
}

static int encode(struct buf *b, const struct record *r)
{
	buf_clear(b);
	record_put(b, r);
	return buf_error(b);
}

static void test_round_trip(void **state)
{
	static const uint8_t kinds[] = {0, RECORD_FILE, RECORD_DIRECTORY, RECORD_SYMLINK, 4, 255};
	struct buf b = BUF_INIT;

	(void)state;
	for (size_t i = 0; i < sizeof(kinds) * 2; i++) {
		struct record r, got;
		struct cursor c;

		make(&r, kinds[i / 2]);
		if (i % 2) {
			version_dots_add(&r.lost, d1);
			version_dots_copy(&r.adots, r.live ? &r.dots : &r.adots);
		}
		assert_int_equal(encode(&b, &r), 0);
		assert_true(b.len < 160);
		c = cursor_over(b.data, b.len);
		record_get(&c, &got);
		assert_int_equal(cursor_finish(&c), 0);
		assert_true(record_equal(&r, &got));
		assert_int_equal(r.mtime_ns, got.mtime_ns);
		record_deinit(&got);
		for (size_t n = 0; n < b.len; n++) { /* cut anywhere */
			c = cursor_over(b.data, n);
			record_get(&c, &got);
			assert_int_equal(cursor_finish(&c), -EBADMSG);
			record_deinit(&got);
		}
		for (size_t n = 0; n < b.len * 8;
			n++) { /* any bit turned: no crash, and still one encoding */
			struct buf again = BUF_INIT;

			b.data[n / 8] ^= (uint8_t)(1 << n % 8);
			c = cursor_over(b.data, b.len);
			record_get(&c, &got);
			if (cursor_finish(&c) == 0) {
				record_put(&again, &got);
				assert_int_equal(again.len, b.len);
				assert_memory_equal(again.data, b.data, b.len);
			}
			record_deinit(&got);
			buf_deinit(&again);
			b.data[n / 8] ^= (uint8_t)(1 << n % 8);
		}
		record_deinit(&r);
	}
	buf_deinit(&b);
}

static void refuse(uint8_t kind, void (*spoil)(struct record *))
{
	struct buf b = BUF_INIT;
	struct record r;
	struct hash h;

	make(&r, kind);
	assert_int_equal(encode(&b, &r), 0);
	spoil(&r);
	assert_int_equal(encode(&b, &r), -EINVAL);
	assert_int_equal(record_hash(HASH_SHA256, "a", &r, &h), -EINVAL);
	record_deinit(&r);
	buf_deinit(&b);
}

static void no_dots(struct record *r)
{
	r->dots.n = 0;
}
static void no_vector(struct record *r)
{
	r->vv.n = 0;
}
static void dot_beyond(struct record *r)
{
	r->vv.v[1].counter = 8;
}
static void lost_beyond(struct record *r)
{
	version_dots_add(&r->lost, (struct version_dot){d3.inc, 9});
}
static void adot_beyond(struct record *r)
{
	version_dots_add(&r->adots, (struct version_dot){d1.inc, 99});
}
static void mdot_beyond(struct record *r)
{
	version_dots_add(&r->mdots, (struct version_dot){d1.inc, 99});
}
static void no_adots(struct record *r)
{
	r->adots.n = 0;
}
static void no_mdots(struct record *r)
{
	r->mdots.n = 0;
}
static void some_mdots(struct record *r)
{
	version_dots_add(&r->mdots, d2);
}
static void some_adots(struct record *r)
{
	version_dots_add(&r->adots, d2);
}
static void big_mode(struct record *r)
{
	r->mode = 010000;
}
static void some_mode(struct record *r)
{
	r->mode = 1;
}
static void some_uid(struct record *r)
{
	r->uid = 1;
}
static void some_mtime(struct record *r)
{
	r->mtime_ns = 1;
}
static void some_kind(struct record *r)
{
	r->kind = 1;
}
static void no_kind(struct record *r)
{
	r->kind = 0;
}
static void not_live(struct record *r)
{
	r->live = false;
}
static void some_root(struct record *r)
{
	r->content.root.bytes[31] ^= 1;
}
static void some_size(struct record *r)
{
	r->content.size ^= 1;
}
static void some_height(struct record *r)
{
	r->content.height ^= 1;
}
static void some_bits(struct record *r)
{
	r->content.chunk_bits = 1;
}
static void big_bits(struct record *r)
{
	r->content.chunk_bits = CHUNK_BITS_MAX + 1;
}
static void big_height(struct record *r)
{
	r->content.height = CHUNK_TREE_HEIGHT_MAX + 1;
}
static void big_size(struct record *r)
{
	r->content.size = UINT64_MAX;
}
static void too_flat(struct record *r)
{
	r->content.size = (4 << 15) + 1, r->content.height = 0;
}
static void some_target(struct record *r)
{
	r->target = strdup("x");
}
static void no_target(struct record *r)
{
	free(r->target), r->target = NULL;
}
static void empty_target(struct record *r)
{
	r->target[0] = 0, r->content.size = 0;
}

static void long_target(struct record *r)
{
	free(r->target);
	r->target = malloc(RECORD_TARGET_BYTES_MAX + 2);
	memset(r->target, 'x', RECORD_TARGET_BYTES_MAX + 1);
	r->target[RECORD_TARGET_BYTES_MAX + 1] = 0;
	r->content.size = RECORD_TARGET_BYTES_MAX + 1;
}

static void test_refuses(void **state)
{
	static const uint8_t kinds[] = {0, RECORD_FILE, RECORD_DIRECTORY, RECORD_SYMLINK, 4};

	(void)state;
	for (size_t i = 0; i < sizeof(kinds); i++) {
		refuse(kinds[i], no_dots);
		refuse(kinds[i], no_vector);
		refuse(kinds[i], dot_beyond);
		refuse(kinds[i], lost_beyond);
		refuse(kinds[i], adot_beyond);
		refuse(kinds[i], mdot_beyond);
		if (!kinds[i])
			continue;
		refuse(kinds[i], no_adots);
		refuse(kinds[i], big_mode);
		refuse(kinds[i], no_kind);
		refuse(kinds[i], not_live);
		if (kinds[i] != RECORD_SYMLINK)
			refuse(kinds[i], some_target);
	}
	for (size_t i = 0; i < 10; i++)
		refuse(0, (void (*[])(struct record *)){some_adots, some_mdots, some_mode, some_uid,
				  some_mtime, some_kind, some_root, some_size, some_bits,
				  some_target}[i]);
	for (size_t i = 0; i < 5; i++)
		refuse(RECORD_DIRECTORY, (void (*[])(struct record *)){some_mdots, some_root,
						 some_size, some_height, some_bits}[i]);
	for (size_t i = 0; i < 6; i++)
		refuse(RECORD_FILE, (void (*[])(struct record *)){no_mdots, some_bits, big_bits,
					    big_height, big_size, too_flat}[i]);
	for (size_t i = 0; i < 8; i++)
		refuse(RECORD_SYMLINK,
			(void (*[])(struct record *)){no_mdots, some_mode, some_size, some_bits,
				some_height, no_target, empty_target, long_target}[i]);
}

/* A dot without an entry of its own may be implied, but only by a higher counter. */
static void test_implied_dots(void **state)
{
	struct buf b = BUF_INIT;
	struct record r;

	(void)state;
	make(&r, RECORD_FILE);
	version_dots_add(&r.lost, d3);
	assert_int_equal(encode(&b, &r), 0);
	record_deinit(&r);
	buf_deinit(&b);
}

static void bad_bytes(const struct buf *b)
{
	struct cursor c = cursor_over(b->data, b->len);
	struct record got;

	record_get(&c, &got);
	assert_int_equal(cursor_finish(&c), -EBADMSG);
	record_deinit(&got);
}

static void test_bad_bytes(void **state)
{
	struct buf b = BUF_INIT;
	struct record r;

	(void)state;
	make(&r, RECORD_SYMLINK);
	assert_int_equal(encode(&b, &r), 0);
	b.data[0] = 2; /* version */
	bad_bytes(&b);
	b.data[0] = 1;
	b.data[1] |= 0x80; /* unknown flag */
	bad_bytes(&b);
	b.data[1] &= 0x7f;
	b.data[b.len - 1] = 0; /* NUL in the target */
	bad_bytes(&b);
	b.data[b.len - 1] = 'x';
	put_u8(&b, 0); /* trailing */
	bad_bytes(&b);
	buf_deinit(&b);
	record_deinit(&r);
}

static void test_compare_and_copy(void **state)
{
	struct record a, b = {0}, dir, dir2 = {0};

	(void)state;
	make(&a, RECORD_SYMLINK);
	assert_int_equal(record_copy(&b, &a), 0);
	assert_ptr_not_equal(a.target, b.target);
	assert_true(record_equal(&a, &b));
	b.target[0] = 'X';
	assert_false(record_same_state(&a, &b));
	assert_true(record_same_attributes(&a, &b));
	assert_int_equal(record_copy(&b, &a), 0); /* replaces */
	b.gid = 3;
	assert_false(record_same_attributes(&a, &b));
	assert_true(record_same_state(&a, &b));
	assert_false(record_equal(&a, &b));
	record_copy(&b, &a);
	b.mtime_ns++;
	assert_false(record_equal(&a, &b));
	record_copy(&b, &a);
	version_dots_add(&b.lost, d1);
	assert_false(record_equal(&a, &b));
	make(&dir, RECORD_DIRECTORY);
	record_copy(&dir2, &dir);
	dir2.mtime_ns++; /* a hint */
	assert_true(record_equal(&dir, &dir2));
	assert_false(record_same_state(&a, &dir));
	record_deinit(&a);
	record_deinit(&b);
	record_deinit(&dir);
	record_deinit(&dir2);
	assert_null(b.target);
}

static void change(struct record *r, size_t what)
{
	switch (what) {
	case 0:
		r->content.root.bytes[0]++;
		break;
	case 1:
		r->mode ^= 0111;
		break;
	case 2:
		r->uid++;
		break;
	case 3:
		r->gid--;
		break;
	case 4:
		r->mtime_ns++;
		break;
	case 5:
		r->vv.v[1].counter++;
		break;
	case 6:
		version_dots_add(&r->dots, d1);
		break;
	case 7:
		version_dots_add(&r->lost, d1);
		break;
	case 8:
		version_dots_add(&r->adots, d2);
		break;
	default:
		version_dots_add(&r->mdots, d1);
	}
}

static void test_hash(void **state)
{
	struct hash h, other;
	struct record r, s = {0};

	(void)state;
	make(&r, RECORD_FILE);
	assert_int_equal(record_hash(HASH_SHA256, "a", &r, &h), 0);
	assert_int_equal(record_hash(HASH_SHA256, "b", &r, &other), 0);
	assert_false(hash_equal(&h, &other));
	for (size_t i = 0; i < 10; i++) {
		record_copy(&s, &r);
		change(&s, i);
		assert_int_equal(record_hash(HASH_SHA256, "a", &s, &other), 0);
		assert_false(hash_equal(&h, &other));
		assert_false(record_equal(&r, &s));
	}
	record_deinit(&r);
	make(&r, RECORD_DIRECTORY);
	record_hash(HASH_XXH3, "a", &r, &h);
	r.mtime_ns++;
	record_hash(HASH_XXH3, "a", &r, &other);
	assert_true(hash_equal(&h, &other));
	record_deinit(&r);
	record_deinit(&s);
}

static const struct stamp stamp = {.ino = UINT64_MAX,
	.generation = 0x12345678,
	.size = 70000,
	.mtime_ns = -5,
	.ctime_ns = 1763686000123456789,
	.mode = 0644,
	.uid = 1000,
	.gid = UINT32_MAX,
	.nlink = 2};

/* What is read of it without its versions is the same; what ends early is refused. */
static void check_brief(const struct buf *b, const struct row *r)
{
	struct cursor c = cursor_over(b->data, b->len);
	struct row_brief got, copy;

	row_brief_get(&c, &got);
	assert_int_equal(cursor_finish(&c), 0);
	assert_int_equal(row_brief_copy(&copy, &got), 0);
	row_brief_deinit(&got);
	assert_int_equal(copy.live, row_live(r));
	assert_int_equal(copy.kind, r->record.kind);
	assert_int_equal(copy.place, r->place);
	assert_int_equal(copy.seq, r->seq);
	assert_true(stamp_equal(&copy.stamp, &r->stamp));
	assert_int_equal(copy.stamp.exact, r->stamp.exact);
	assert_int_equal(copy.recorded_ns, r->recorded_ns);
	assert_true(content_equal(&copy.content, &r->record.content));
	assert_int_equal(!copy.target, !r->record.target);
	if (copy.target)
		assert_string_equal(copy.target, r->record.target);
	row_brief_deinit(&copy);
	for (size_t n = 0; n < b->len; n++) {
		c = cursor_over(b->data, n);
		row_brief_get(&c, &got);
		assert_int_equal(cursor_finish(&c), -EBADMSG);
		row_brief_deinit(&got);
	}
}

static void check_row(const struct row *r, bool fine)
{
	struct buf b = BUF_INIT;
	struct cursor c;
	struct row got, copy = {0};

	row_put(&b, r);
	assert_int_equal(buf_error(&b), fine ? 0 : -EINVAL);
	if (!fine)
		return buf_deinit(&b);
	assert_true(b.len < 450 - 120);
	c = cursor_over(b.data, b.len);
	row_get(&c, &got);
	assert_int_equal(cursor_finish(&c), 0);
	assert_int_equal(row_copy(&copy, &got), 0);
	assert_true(record_equal(&copy.record, &r->record));
	assert_int_equal(copy.place, r->place);
	assert_true(stamp_equal(&copy.stamp, &r->stamp));
	assert_int_equal(copy.stamp.nlink, r->stamp.nlink);
	assert_int_equal(copy.stamp.exact, r->stamp.exact);
	assert_int_equal(copy.stamp.generation, r->stamp.generation);
	assert_int_equal(copy.recorded_ns, r->recorded_ns);
	assert_int_equal(copy.since_ns, r->since_ns);
	assert_int_equal(copy.seq, r->seq);
	assert_int_equal(copy.source, r->source);
	row_deinit(&got);
	check_brief(&b, r);
	for (size_t n = 0; n < b.len; n++) {
		c = cursor_over(b.data, n);
		row_get(&c, &got);
		assert_int_equal(cursor_finish(&c), -EBADMSG);
		row_deinit(&got);
	}
	row_deinit(&copy);
	buf_deinit(&b);
}

static void test_rows(void **state)
{
	struct row r = {
		.place = ROW_ON_DISK, .stamp = stamp, .recorded_ns = 7, .seq = 99, .source = 5};

	(void)state;
	make(&r.record, RECORD_FILE);
	assert_true(row_live(&r));
	check_row(&r, true);
	r.stamp.exact = 1;
	check_row(&r, true);
	r.stamp.exact = UINT32_MAX;
	check_row(&r, true);
	r.place = ROW_COLLIDES + 1;
	check_row(&r, false);
	r.place = ROW_IMPLIED; /* not with a live record */
	check_row(&r, false);
	for (uint8_t place = ROW_IGNORED; place <= ROW_COLLIDES; place++) {
		r.place = place;
		r.stamp = (struct stamp){0};
		check_row(&r, true);
	}
	row_deinit(&r);

	r = (struct row){.place = ROW_NOT_HERE, .since_ns = -1, .seq = 1};
	assert_false(row_has_record(&r));
	check_row(&r, false);
	make(&r.record, 0);
	assert_true(row_has_record(&r));
	assert_false(row_live(&r));
	check_row(&r, true);
	r.place = ROW_ON_DISK;
	check_row(&r, false);
	r.place = ROW_IMPLIED; /* deleted, but something unknown is inside */
	r.stamp = stamp;
	check_row(&r, true);
	row_deinit(&r);

	r = (struct row){.place = ROW_IMPLIED, .stamp = stamp};
	check_row(&r, true);
}

static void test_stamps(void **state)
{
	struct stamp s = stamp;

	(void)state;
	s.nlink++;
	s.generation++;
	assert_true(stamp_equal(&s, &stamp));
	s.ctime_ns++;
	assert_false(stamp_equal(&s, &stamp));
	s = stamp, s.ino--;
	assert_false(stamp_equal(&s, &stamp));
	s = stamp, s.mode ^= 1;
	assert_false(stamp_equal(&s, &stamp));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_round_trip),
		cmocka_unit_test(test_refuses),
		cmocka_unit_test(test_implied_dots),
		cmocka_unit_test(test_bad_bytes),
		cmocka_unit_test(test_compare_and_copy),
		cmocka_unit_test(test_hash),
		cmocka_unit_test(test_rows),
		cmocka_unit_test(test_stamps),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
