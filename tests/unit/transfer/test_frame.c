/* tests/unit/transfer/test_frame.c — round trips, every kind of damage, limits, foreign streams. */
#include "transfer/frame.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include <xxhash.h>
#include <zstd.h>

#include "base/error.h"
#include "base/random.h"

enum { TYPE_SMALL = 1, TYPE_BULK = 2, TYPE_EMPTY = 3, TYPE_UNKNOWN = 9 };
#define SMALL_MAX 4096
#define BULK_MAX (5 * 1024 * 1024)

static size_t max_bytes(uint8_t type)
{
	switch (type) {
	case TYPE_SMALL:
		return SMALL_MAX;
	case TYPE_BULK:
		return BULK_MAX;
	case TYPE_EMPTY:
		return 1;
	default:
		return 0;
	}
}

struct pair {
	struct frame_writer *w;
	struct frame_reader *r;
	struct buf wire;
};

static int setup(void **state)
{
	struct pair *p = test_calloc(1, sizeof(*p));

	assert_int_equal(frame_writer_new(&p->w, 3), 0);
	assert_int_equal(frame_reader_new(&p->r, max_bytes), 0);
	frame_put_preface(&p->wire);
	*state = p;
	return 0;
}

static int teardown(void **state)
{
	struct pair *p = *state;

	frame_writer_free(p->w);
	frame_reader_free(p->r);
	buf_deinit(&p->wire);
	test_free(p);
	return 0;
}

static int read_one(struct pair *p, uint8_t *type, const uint8_t **payload, size_t *n)
{
	return frame_read(p->r, type, payload, n);
}

static int feed_all(struct pair *p)
{
	return frame_reader_feed(p->r, p->wire.data, p->wire.len);
}

/* Feed the whole wire and return what the first read says. */
static int outcome(struct pair *p)
{
	const uint8_t *payload;
	uint8_t type;
	size_t n;

	assert_int_equal(feed_all(p), 0);
	return read_one(p, &type, &payload, &n);
}

static void expect_frame(struct pair *p, uint8_t type, const void *payload, size_t n)
{
	const uint8_t *got = NULL;
	uint8_t got_type = 0;
	size_t got_n = 0;

	assert_int_equal(read_one(p, &got_type, &got, &got_n), 0);
	assert_int_equal(got_type, type);
	assert_int_equal(got_n, n);
	assert_non_null(got);
	if (n)
		assert_memory_equal(got, payload, n);
}

static void expect_more(struct pair *p)
{
	const uint8_t *payload;
	uint8_t type;
	size_t n;

	assert_int_equal(read_one(p, &type, &payload, &n), FRAME_MORE);
}

static uint8_t *some_bytes(size_t n, bool random)
{
	uint8_t *p = malloc(n ? n : 1);

	assert_non_null(p);
	if (random)
		random_bytes(p, n);
	else
		for (size_t i = 0; i < n; i++)
			p[i] = (uint8_t)("all work and no play "[i % 21]);
	return p;
}

/* Offset of the first frame's header. */
static uint8_t *header(struct pair *p)
{
	return p->wire.data + FRAME_PREFACE_BYTES;
}

/* What a hostile peer can do: a right sum over whatever it likes. */
static void repair_check(struct pair *p, uint64_t number)
{
	uint8_t *h = header(p);
	size_t n = p->wire.len - FRAME_PREFACE_BYTES - FRAME_HEADER_BYTES;
	XXH3_state_t *x = XXH3_createState();
	uint32_t check;

	XXH3_64bits_reset_withSeed(x, number);
	XXH3_64bits_update(x, h, 8);
	XXH3_64bits_update(x, h + FRAME_HEADER_BYTES, n);
	check = (uint32_t)XXH3_64bits_digest(x);
	XXH3_freeState(x);
	for (int i = 0; i < 4; i++)
		h[8 + i] = (uint8_t)(check >> (8 * i));
}

/* One frame made by hand, with a right sum. */
static void craft(struct pair *p, uint32_t length, uint8_t type, uint8_t flags, uint16_t reserved,
	const void *payload, size_t n)
{
	put_u32(&p->wire, length);
	put_u8(&p->wire, type);
	put_u8(&p->wire, flags);
	put_u16(&p->wire, reserved);
	put_u32(&p->wire, 0);
	put_bytes(&p->wire, payload, n);
	repair_check(p, 0);
}

static void craft_zstd(struct pair *p, uint8_t type, uint32_t announced, const void *packed,
	size_t n)
{
	struct buf b = BUF_INIT;

	put_u32(&b, announced);
	put_bytes(&b, packed, n);
	craft(p, (uint32_t)b.len, type, 1, 0, b.data, b.len);
	buf_deinit(&b);
}

/* --- round trips --- */

static void test_round_trip_of_all_sizes(void **state)
{
	static const size_t sizes[] = {0, 1, 11, 12, 13, 127, 128, 129, 4095, 4096, 65536, 1 << 20,
		BULK_MAX};
	struct pair *p = *state;

	for (size_t i = 0; i < ARRAY_SIZE(sizes) * 4; i++) {
		cleanup_free uint8_t *bytes = some_bytes(sizes[i / 4], i & 1);

		assert_int_equal(
			frame_write(p->w, &p->wire, TYPE_BULK, bytes, sizes[i / 4], i & 2), 0);
		assert_int_equal(feed_all(p), 0);
		expect_frame(p, TYPE_BULK, bytes, sizes[i / 4]);
		expect_more(p);
		buf_clear(&p->wire);
	}
	assert_int_equal(frame_reader_version(p->r), FRAME_VERSION_MAX);
}

static void test_bytes_one_by_one(void **state)
{
	struct pair *p = *state;
	cleanup_free uint8_t *text = some_bytes(1000, false);
	size_t seen = 0;

	frame_write(p->w, &p->wire, TYPE_SMALL, text, 1000, true);
	frame_write(p->w, &p->wire, TYPE_EMPTY, NULL, 0, true);
	frame_write(p->w, &p->wire, TYPE_SMALL, text, 1000, false);
	for (size_t i = 0; i < p->wire.len; i++) {
		const uint8_t *payload;
		uint8_t type;
		size_t n;
		int r;

		assert_int_equal(frame_reader_feed(p->r, p->wire.data + i, 1), 0);
		r = read_one(p, &type, &payload, &n);
		if (r == FRAME_MORE)
			continue;
		assert_int_equal(r, 0);
		assert_int_equal(type, seen == 1 ? TYPE_EMPTY : TYPE_SMALL);
		assert_int_equal(n, seen == 1 ? 0 : 1000);
		if (n)
			assert_memory_equal(payload, text, n);
		seen++;
	}
	assert_int_equal(seen, 3);
}

static void test_many_frames_in_one_feed(void **state)
{
	struct pair *p = *state;

	for (uint32_t i = 0; i < 100000; i++)
		assert_int_equal(frame_write(p->w, &p->wire, TYPE_SMALL, &i, sizeof(i), true), 0);
	assert_int_equal(feed_all(p), 0);
	for (uint32_t i = 0; i < 100000; i++)
		expect_frame(p, TYPE_SMALL, &i, sizeof(i));
	expect_more(p);
}

/* What another writer prepared is numbered where it is put: the reader can't tell. */
static void test_prepared(void **state)
{
	struct pair *p = *state;
	cleanup(buf_deinit) struct buf frames = BUF_INIT, moved = BUF_INIT, empty = BUF_INIT;
	uint8_t *text = some_bytes(50000, false);
	struct frame_writer *other;

	assert_int_equal(frame_writer_new(&other, 3), 0);
	assert_int_equal(frame_prepare(other, &frames, TYPE_BULK, text, 50000, true), 0);
	assert_true(frames.len < 50000);
	assert_int_equal(frame_prepare(other, &frames, TYPE_SMALL, text, 100, true), 0);
	assert_int_equal(frame_prepare(other, &frames, TYPE_EMPTY, NULL, 0, true), 0);
	frame_write(p->w, &p->wire, TYPE_SMALL, text, 1000, true);
	assert_int_equal(frame_write_prepared(p->w, &p->wire, &frames), 0);
	frame_write(p->w, &p->wire, TYPE_SMALL, text, 10, true);
	assert_int_equal(frame_prepare(other, &moved, TYPE_BULK, text, 40000, true), 0);
	assert_int_equal(frame_write_prepared(p->w, &empty, &moved), 0);
	assert_int_equal(moved.len, 0);
	put_bytes(&p->wire, empty.data, empty.len);
	assert_int_equal(feed_all(p), 0);
	expect_frame(p, TYPE_SMALL, text, 1000);
	expect_frame(p, TYPE_BULK, text, 50000);
	expect_frame(p, TYPE_SMALL, text, 100);
	expect_frame(p, TYPE_EMPTY, NULL, 0);
	expect_frame(p, TYPE_SMALL, text, 10);
	expect_frame(p, TYPE_BULK, text, 40000);
	expect_more(p);
	p->wire.max_bytes = p->wire.len + 100; /* all of it or nothing */
	assert_int_equal(frame_write_prepared(p->w, &p->wire, &frames), -EMSGSIZE);
	frame_writer_free(other);
	free(text);
}

static void test_compression_only_where_it_pays(void **state)
{
	struct pair *p = *state;
	cleanup_free uint8_t *text = some_bytes(4000, false), *noise = some_bytes(4000, true);
	size_t before = p->wire.len;

	frame_write(p->w, &p->wire, TYPE_SMALL, text, 4000, true);
	assert_true(p->wire.len - before < 200);
	assert_int_equal(header(p)[5], 1);
	before = p->wire.len;
	frame_write(p->w, &p->wire, TYPE_SMALL, noise, 4000, true);
	assert_int_equal(p->wire.len - before, FRAME_HEADER_BYTES + 4000);
	before = p->wire.len;
	frame_write(p->w, &p->wire, TYPE_SMALL, text, 4000, false);
	assert_int_equal(p->wire.len - before, FRAME_HEADER_BYTES + 4000);
	/* 3 % of text in noise does not pay */
	memcpy(noise, text, 120);
	before = p->wire.len;
	frame_write(p->w, &p->wire, TYPE_SMALL, noise, 4000, true);
	assert_int_equal(p->wire.len - before, FRAME_HEADER_BYTES + 4000);
	before = p->wire.len;
	frame_write(p->w, &p->wire, TYPE_SMALL, text, FRAME_COMPRESS_MIN_BYTES - 1, true);
	assert_int_equal(p->wire.len - before, FRAME_HEADER_BYTES + FRAME_COMPRESS_MIN_BYTES - 1);
	frame_writer_plain(p->w);
	before = p->wire.len;
	frame_write(p->w, &p->wire, TYPE_SMALL, text, 4000, true);
	assert_int_equal(p->wire.len - before, FRAME_HEADER_BYTES + 4000);
}

/* What does not get shorter is passed through more and more often, but what does is seen again, and short payloads are all tried. */
static void test_noise_is_passed(void **state)
{
	struct pair *p = *state;
	cleanup_free uint8_t *text = some_bytes(FRAME_LONG_BYTES, false), *noise = some_bytes(FRAME_LONG_BYTES, true);
	unsigned passed = 0;

	for (int i = 0; i < 100; i++)
		frame_write(p->w, &p->wire, TYPE_BULK, noise, FRAME_LONG_BYTES, true);
	assert_int_equal(p->wire.len, FRAME_PREFACE_BYTES + 100 * (FRAME_HEADER_BYTES + FRAME_LONG_BYTES));
	for (size_t before = p->wire.len; passed <= FRAME_PASS_MAX; passed++, before = p->wire.len) {
		frame_write(p->w, &p->wire, TYPE_BULK, text, FRAME_LONG_BYTES, true);
		if (p->wire.len - before < FRAME_LONG_BYTES)
			break;
		before = p->wire.len;
		frame_write(p->w, &p->wire, TYPE_SMALL, text, 1000, true);
		assert_true(p->wire.len - before < 500);
	}
	assert_true(passed > 0 && passed <= FRAME_PASS_MAX);
	for (int i = 0; i < 10; i++) { /* and all is as it was */
		size_t before = p->wire.len;

		frame_write(p->w, &p->wire, TYPE_BULK, text, FRAME_LONG_BYTES, true);
		assert_true(p->wire.len - before < FRAME_LONG_BYTES / 2);
	}
}

/* --- a shared context --- */

/* Like what many files of one kind have in common; each time another name in it. */
static size_t some_source(uint8_t *p, unsigned i)
{
	static const char text[] = "/* file %u of a project, whose license, includes and habits are those of all of its files */\n"
				   "#include \"base/error.h\"\n#include \"base/file.h\"\n\nint function_%u(struct thing *t)\n{\n\treturn t->field + %u;\n}\n";

	return (size_t)snprintf((char *)p, 1000, text, i, i * 7, i * 13);
}

/* What is prepared with a shared context among what is not; noise among it; the level changes. */
static void test_shared_context(void **state)
{
	struct pair *p = *state;
	struct frame_writer *other;
	cleanup_free uint8_t *noise = some_bytes(200000, true);
	uint8_t text[1000];
	size_t alone = 0, shared = 0, n;

	assert_int_equal(frame_writer_new(&other, 1), 0);
	frame_writer_share(other);
	for (unsigned i = 0; i < 300; i++) {
		cleanup(buf_deinit) struct buf frames = BUF_INIT;
		size_t before = p->wire.len;

		n = some_source(text, i);
		frame_write(p->w, &p->wire, TYPE_SMALL, text, n, true);
		alone += p->wire.len - before;
		frame_writer_level(other, i < 200 ? 1 : 6);
		assert_int_equal(frame_prepare(other, &frames, TYPE_SMALL, text, n, true), 0);
		shared += frames.len;
		if (i % 50 == 0)
			assert_int_equal(frame_prepare(other, &frames, TYPE_BULK, noise, 200000 + 1 - (i + 1), true), 0);
		if (i % 3 == 0)
			assert_int_equal(frame_prepare(other, &frames, TYPE_SMALL, "short", 5, true), 0);
		assert_int_equal(frame_write_prepared(p->w, &p->wire, &frames), 0);
	}
	assert_true(shared < alone / 2);
	assert_int_equal(feed_all(p), 0);
	for (unsigned i = 0; i < 300; i++) {
		n = some_source(text, i);
		expect_frame(p, TYPE_SMALL, text, n);
		expect_frame(p, TYPE_SMALL, text, n);
		if (i % 50 == 0)
			expect_frame(p, TYPE_BULK, noise, 200000 + 1 - (i + 1));
		if (i % 3 == 0)
			expect_frame(p, TYPE_SMALL, "short", 5);
	}
	expect_more(p);
	frame_writer_free(other);
}

/* Whatever its length; what is no shorter is seldom tried, and never much longer. */
static void test_noise_in_a_shared_context(void **state)
{
	struct pair *p = *state;
	cleanup_free uint8_t *noise = some_bytes(BULK_MAX, true), *text = some_bytes(1000, false);
	size_t before;
	unsigned i;

	frame_writer_share(p->w);
	frame_write(p->w, &p->wire, TYPE_BULK, noise, BULK_MAX, true);
	assert_true(p->wire.len <= FRAME_PREFACE_BYTES + FRAME_HEADER_BYTES + BULK_MAX + FRAME_CONTEXT_BYTES + BULK_MAX / 10000);
	for (i = 0; i < 100; i++)
		frame_write(p->w, &p->wire, TYPE_SMALL, noise + i * 1000, 1000, true);
	for (i = 0; i <= FRAME_PASS_MAX; i++) {
		before = p->wire.len;
		frame_write(p->w, &p->wire, TYPE_SMALL, text, 1000, true);
		if (p->wire.len - before < 500)
			break;
	}
	assert_in_range(i, 1, FRAME_PASS_MAX);
	assert_int_equal(feed_all(p), 0);
	expect_frame(p, TYPE_BULK, noise, BULK_MAX);
	for (unsigned j = 0; j < 100; j++)
		expect_frame(p, TYPE_SMALL, noise + j * 1000, 1000);
	for (unsigned j = 0; j <= i; j++)
		expect_frame(p, TYPE_SMALL, text, 1000);
	expect_more(p);
}

static void test_levels(void **state)
{
	struct pair *p = *state;
	static const int levels[] = {INT32_MIN, -5, 0, 1, 19, 22, INT32_MAX};
	cleanup_free uint8_t *text = some_bytes(200000, false);

	for (size_t i = 0; i < ARRAY_SIZE(levels); i++) {
		struct pair q = {0};

		assert_int_equal(frame_writer_new(&q.w, levels[i]), 0);
		assert_int_equal(frame_reader_new(&q.r, max_bytes), 0);
		frame_put_preface(&q.wire);
		assert_int_equal(frame_write(q.w, &q.wire, TYPE_BULK, text, 200000, true), 0);
		assert_true(levels[i] < -5 || q.wire.len < 100000);
		assert_int_equal(feed_all(&q), 0);
		expect_frame(&q, TYPE_BULK, text, 200000);
		frame_writer_free(q.w);
		frame_reader_free(q.r);
		buf_deinit(&q.wire);
	}
	(void)p;
}

static void test_a_full_output_is_not_half_written(void **state)
{
	struct pair *p = *state;
	cleanup_free uint8_t *noise = some_bytes(1000, true);
	size_t before = p->wire.len;

	p->wire.max_bytes = 500;
	assert_int_equal(frame_write(p->w, &p->wire, TYPE_SMALL, noise, 1000, true), -EMSGSIZE);
	assert_int_equal(p->wire.len, before);
	p->wire.error = 0;
	p->wire.max_bytes = 0;
	assert_int_equal(frame_write(p->w, &p->wire, TYPE_SMALL, noise, 1000, true), 0);
	assert_int_equal(feed_all(p), 0);
	expect_frame(p, TYPE_SMALL, noise, 1000); /* and its number was 0 */
}

/* --- damage --- */

static void test_every_flipped_bit_is_seen(void **state)
{
	struct pair *p = *state;
	cleanup_free uint8_t *text = some_bytes(300, false);
	size_t n;

	frame_write(p->w, &p->wire, TYPE_SMALL, text, 300, true);
	frame_write(p->w, &p->wire, TYPE_SMALL, "xyz", 3, true);
	n = p->wire.len;
	for (size_t bit = FRAME_PREFACE_BYTES * 8; bit < n * 8; bit++) {
		const uint8_t *payload;
		size_t got, frames = 0;
		uint8_t type;
		int r;

		frame_reader_free(p->r);
		p->r = NULL;
		assert_int_equal(frame_reader_new(&p->r, max_bytes), 0);
		p->wire.data[bit / 8] ^= (uint8_t)(1 << bit % 8);
		assert_int_equal(feed_all(p), 0);
		while ((r = read_one(p, &type, &payload, &got)) == 0)
			frames++;
		/* a longer length waits for more; anything else is refused */
		assert_true(r == -EBADMSG || r == FRAME_MORE);
		assert_true(frames < 2);
		p->wire.data[bit / 8] ^= (uint8_t)(1 << bit % 8);
	}
}

static void test_dropped_doubled_and_swapped_frames_are_seen(void **state)
{
	struct pair *p = *state;
	static const char *const orders[] = {"BA", "AAB", "B"};

	for (size_t i = 0; i < ARRAY_SIZE(orders); i++) {
		struct buf frames[2] = {BUF_INIT, BUF_INIT};
		struct pair q = {0};
		const uint8_t *payload;
		uint8_t type;
		size_t n;
		int r;

		assert_int_equal(frame_writer_new(&q.w, 1), 0);
		assert_int_equal(frame_reader_new(&q.r, max_bytes), 0);
		frame_write(q.w, &frames[0], TYPE_SMALL, "same", 4, false);
		frame_write(q.w, &frames[1], TYPE_SMALL, "same", 4, false);
		frame_put_preface(&q.wire);
		for (const char *o = orders[i]; *o; o++)
			put_bytes(&q.wire, frames[*o - 'A'].data, frames[*o - 'A'].len);
		assert_int_equal(feed_all(&q), 0);
		while ((r = read_one(&q, &type, &payload, &n)) == 0)
			;
		assert_int_equal(r, -EBADMSG);
		frame_writer_free(q.w);
		frame_reader_free(q.r);
		buf_deinit(&q.wire);
		buf_deinit(&frames[0]);
		buf_deinit(&frames[1]);
	}
	(void)p;
}

static void test_an_error_is_final(void **state)
{
	struct pair *p = *state;

	craft(p, 3, TYPE_SMALL, 0, 0, "abc", 3);
	header(p)[8] ^= 1;
	assert_int_equal(outcome(p), -EBADMSG);
	buf_clear(&p->wire);
	frame_write(p->w, &p->wire, TYPE_SMALL, "abc", 3, false);
	assert_int_equal(outcome(p), -EBADMSG);
}

static void test_over_long_is_refused_at_the_header(void **state)
{
	struct pair *p = *state;

	craft(p, SMALL_MAX + 1, TYPE_SMALL, 0, 0, "", 0);
	assert_int_equal(outcome(p), -EBADMSG);
}

static void test_huge_length_is_refused_at_the_header(void **state)
{
	struct pair *p = *state;

	craft(p, UINT32_MAX, TYPE_BULK, 0, 0, "", 0);
	assert_int_equal(outcome(p), -EBADMSG);
}

static void test_unknown_type(void **state)
{
	struct pair *p = *state;

	craft(p, 0, TYPE_UNKNOWN, 0, 0, "", 0);
	assert_int_equal(outcome(p), -EBADMSG);
}

static void anew(struct pair *p)
{
	frame_reader_free(p->r);
	p->r = NULL;
	assert_int_equal(frame_reader_new(&p->r, max_bytes), 0);
	buf_clear(&p->wire);
	frame_put_preface(&p->wire);
}

static void test_unknown_flags(void **state)
{
	static const uint8_t flags[] = {2, 3, 4, 5, 7, 8, 14, 128};
	struct pair *p = *state;

	for (size_t i = 0; i < ARRAY_SIZE(flags); i++) {
		anew(p);
		craft(p, 1, TYPE_SMALL, flags[i], 0, "x", 1);
		assert_int_equal(outcome(p), -EBADMSG);
	}
}

static void test_reserved_field(void **state)
{
	struct pair *p = *state;

	craft(p, 1, TYPE_SMALL, 0, 256, "x", 1);
	assert_int_equal(outcome(p), -EBADMSG);
}

/* --- hostile compression; the sums are right --- */

struct packed {
	uint8_t bytes[8192];
	size_t n;
};

static struct packed pack(const void *p, size_t n, bool with_size)
{
	struct packed ret;
	ZSTD_CCtx *c = ZSTD_createCCtx();

	ZSTD_CCtx_setParameter(c, ZSTD_c_contentSizeFlag, with_size);
	ret.n = ZSTD_compress2(c, ret.bytes, sizeof(ret.bytes), p, n);
	assert_false(ZSTD_isError(ret.n));
	ZSTD_freeCCtx(c);
	return ret;
}

static void test_crafted_frame_is_good_to_begin_with(void **state)
{
	struct pair *p = *state;
	cleanup_free uint8_t *text = some_bytes(1000, false);
	struct packed z = pack(text, 1000, true);

	craft_zstd(p, TYPE_SMALL, 1000, z.bytes, z.n);
	assert_int_equal(outcome(p), 0);
}

static void test_zstd_announces_less_or_more(void **state)
{
	struct pair *p = *state;
	cleanup_free uint8_t *text = some_bytes(1000, false);
	struct packed z = pack(text, 1000, true);
	static const uint32_t lies[] = {0, 1, 999, 1001, SMALL_MAX, SMALL_MAX + 1, UINT32_MAX};

	for (size_t i = 0; i < ARRAY_SIZE(lies); i++) {
		anew(p);
		craft_zstd(p, TYPE_SMALL, lies[i], z.bytes, z.n);
		assert_int_equal(outcome(p), -EBADMSG);
	}
}

static void test_zstd_bomb(void **state)
{
	struct pair *p = *state;
	size_t n = 64 * 1024 * 1024;
	cleanup_free uint8_t *zeros = calloc(1, n);
	struct packed z = pack(zeros, n, true);

	craft_zstd(p, TYPE_SMALL, (uint32_t)n, z.bytes, z.n);
	assert_int_equal(outcome(p), -EBADMSG);
}

static void test_zstd_without_content_size(void **state)
{
	struct pair *p = *state;
	cleanup_free uint8_t *text = some_bytes(1000, false);
	struct packed z = pack(text, 1000, false);

	craft_zstd(p, TYPE_SMALL, 1000, z.bytes, z.n);
	assert_int_equal(outcome(p), -EBADMSG);
}

static void test_zstd_two_frames_or_rest(void **state)
{
	struct pair *p = *state;
	cleanup_free uint8_t *text = some_bytes(1000, false);
	struct packed z = pack(text, 1000, true);

	memcpy(z.bytes + z.n, z.bytes, z.n);
	craft_zstd(p, TYPE_SMALL, 1000, z.bytes, z.n * 2);
	assert_int_equal(outcome(p), -EBADMSG);
}

static void test_zstd_cut(void **state)
{
	struct pair *p = *state;
	cleanup_free uint8_t *text = some_bytes(1000, false);
	struct packed z = pack(text, 1000, true);

	craft_zstd(p, TYPE_SMALL, 1000, z.bytes, z.n - 1);
	assert_int_equal(outcome(p), -EBADMSG);
}

/* The beginning of a context, as a peer may make it. */
static struct packed begin_context(const void *p, size_t n, int window_bits, ZSTD_EndDirective end)
{
	struct packed ret;
	ZSTD_CCtx *c = ZSTD_createCCtx();
	ZSTD_inBuffer in = {p, n, 0};
	ZSTD_outBuffer out = {ret.bytes, sizeof(ret.bytes), 0};

	ZSTD_CCtx_setParameter(c, ZSTD_c_windowLog, window_bits);
	assert_int_equal(ZSTD_compressStream2(c, &out, &in, end), 0);
	ret.n = out.pos;
	ZSTD_freeCCtx(c);
	return ret;
}

static int begun(struct pair *p, uint32_t announced, const uint8_t *packed, size_t n)
{
	struct buf b = BUF_INIT;

	anew(p);
	put_u32(&b, announced);
	put_bytes(&b, packed, n);
	craft(p, (uint32_t)b.len, TYPE_SMALL, 6, 0, b.data, b.len);
	buf_deinit(&b);
	return outcome(p);
}

static void test_hostile_contexts(void **state)
{
	struct pair *p = *state;
	cleanup_free uint8_t *text = some_bytes(1000, false), *zeros = calloc(1, 1 << 20);
	struct packed z = begin_context(text, 1000, FRAME_WINDOW_BITS, ZSTD_e_flush), other;
	static const uint32_t lies[] = {0, 1, 999, 1001, SMALL_MAX, SMALL_MAX + 1, UINT32_MAX};

	assert_int_equal(begun(p, 1000, z.bytes, z.n), 0);
	for (size_t i = 0; i < ARRAY_SIZE(lies); i++)
		if (lies[i] != 1 && lies[i] != 999) /* what is left over would come with the next one */
			assert_int_equal(begun(p, lies[i], z.bytes, z.n), -EBADMSG);
	assert_int_equal(begun(p, 1000, z.bytes, z.n - 1), -EBADMSG);
	assert_int_equal(begun(p, 1000, z.bytes, 0), -EBADMSG);
	other = begin_context(text, 1000, FRAME_WINDOW_BITS + 1, ZSTD_e_flush); /* a window larger than agreed */
	assert_int_equal(begun(p, 1000, other.bytes, other.n), -EBADMSG);
	other = begin_context(text, 1000, FRAME_WINDOW_BITS, ZSTD_e_end); /* it ends */
	assert_int_equal(begun(p, 1000, other.bytes, other.n), -EBADMSG);
	other = begin_context(zeros, 1 << 20, FRAME_WINDOW_BITS, ZSTD_e_flush); /* a bomb */
	assert_int_equal(begun(p, 1 << 20, other.bytes, other.n), -EBADMSG);
	memcpy(other.bytes, "\x50\x2a\x4d\x18\4\0\0\0skip", 12); /* something to be skipped before it */
	memcpy(other.bytes + 12, z.bytes, z.n);
	assert_int_equal(begun(p, 1000, other.bytes, z.n + 12), -EBADMSG);
}

/* A peer that does not know of them begins none. */
static void test_context_of_an_earlier_version(void **state)
{
	struct pair *p = *state;
	cleanup_free uint8_t *text = some_bytes(1000, false);

	frame_writer_share(p->w);
	frame_write(p->w, &p->wire, TYPE_SMALL, text, 1000, true);
	p->wire.data[FRAME_PREFACE_BYTES - 1] = FRAME_VERSION_CONTEXT - 1;
	assert_int_equal(outcome(p), -EBADMSG);
}

static void test_zstd_flag_without_anything(void **state)
{
	struct pair *p = *state;

	craft(p, 3, TYPE_SMALL, 1, 0, "\1\0\0", 3);
	assert_int_equal(outcome(p), -EBADMSG);
}

static void test_zstd_skippable_frame(void **state)
{
	struct pair *p = *state;
	static const uint8_t skippable[] = {0x50, 0x2a, 0x4d, 0x18, 4, 0, 0, 0, 1, 2, 3, 4};

	craft_zstd(p, TYPE_SMALL, 4, skippable, sizeof(skippable));
	assert_int_equal(outcome(p), -EBADMSG);
}

/* --- bounds of the buffer --- */

static void test_feeding_without_reading_is_refused(void **state)
{
	struct pair *p = *state;
	cleanup_free uint8_t *noise = some_bytes(1000, true);

	frame_write(p->w, &p->wire, TYPE_SMALL, noise, 1000, false);
	assert_int_equal(feed_all(p), 0);
	assert_int_equal(frame_reader_feed(p->r, "x", 1), -ENOBUFS);
	expect_frame(p, TYPE_SMALL, noise, 1000);
	expect_more(p);
	assert_int_equal(frame_reader_feed(p->r, "x", 1), 0);
	expect_more(p);
}

static void test_payload_stays_until_the_next_call(void **state)
{
	struct pair *p = *state;
	const uint8_t *payload;
	uint8_t type;
	size_t n;

	frame_write(p->w, &p->wire, TYPE_SMALL, "first", 5, false);
	frame_write(p->w, &p->wire, TYPE_SMALL, "second", 6, false);
	assert_int_equal(feed_all(p), 0);
	memset(p->wire.data, 0, p->wire.len); /* the reader has its own copy */
	assert_int_equal(read_one(p, &type, &payload, &n), 0);
	assert_memory_equal(payload, "first", 5);
	expect_frame(p, TYPE_SMALL, "second", 6);
}

/* --- the preface --- */

static int preface(struct pair *p, const void *bytes, size_t n)
{
	buf_clear(&p->wire);
	put_bytes(&p->wire, bytes, n);
	return outcome(p);
}

static void test_foreign_stream_is_told_at_once(void **state)
{
	struct pair *p = *state;
	char longer[200];

	assert_string_equal(frame_reader_garbage(p->r), "");
	assert_int_equal(preface(p, "b", 1), FRAME_NOT_SYNCD);
	assert_int_equal(frame_reader_feed(p->r, "ash: no\033[2J such\n", 17), 0);
	assert_int_equal(outcome(p), FRAME_NOT_SYNCD);
	assert_string_equal(frame_reader_garbage(p->r), "'bash: no\\x1b[2J such\\x0ab'");
	memset(longer, 'y', sizeof(longer));
	assert_int_equal(frame_reader_feed(p->r, longer, sizeof(longer)), 0);
	assert_true(strlen(frame_reader_garbage(p->r)) < 4 * FRAME_GARBAGE_BYTES + 8);
	assert_int_equal(frame_reader_version(p->r), 0);
}

static void test_foreign_stream_with_nul(void **state)
{
	struct pair *p = *state;

	assert_int_equal(preface(p, "syncd\1\0z", 8), FRAME_NOT_SYNCD);
	assert_string_equal(frame_reader_garbage(p->r), "'syncd\\x01?z'");
}

static void test_part_of_a_preface_waits(void **state)
{
	struct pair *p = *state;

	assert_int_equal(preface(p, "", 0), FRAME_MORE);
	assert_int_equal(preface(p, "syn", 3), FRAME_MORE);
	assert_int_equal(preface(p, "cd", 2), FRAME_MORE);
	assert_int_equal(preface(p, "\0\1", 2), FRAME_MORE);
	assert_int_equal(frame_reader_version(p->r), 0);
	assert_int_equal(preface(p, "\xff", 1), FRAME_MORE);
	assert_int_equal(frame_reader_version(p->r), FRAME_VERSION_MAX);
}

static void test_no_common_version(void **state)
{
	struct pair *p = *state;
	uint8_t min = 0, max = 0;

	assert_int_equal(preface(p, (char[]){'s', 'y', 'n', 'c', 'd', 0, FRAME_VERSION_MAX + 1, FRAME_VERSION_MAX + 3}, 8), FRAME_VERSION);
	frame_reader_versions(p->r, &min, &max);
	assert_int_equal(min, FRAME_VERSION_MAX + 1);
	assert_int_equal(max, FRAME_VERSION_MAX + 3);
	assert_int_equal(frame_reader_version(p->r), 0);
	assert_int_equal(outcome(p), FRAME_VERSION);
}

/* One that knows less is spoken to as it knows it. */
static void test_earlier_version(void **state)
{
	struct pair *p = *state;

	assert_int_equal(preface(p, (char[]){'s', 'y', 'n', 'c', 'd', 0, 1, FRAME_VERSION_MIN}, 8), FRAME_MORE);
	assert_int_equal(frame_reader_version(p->r), FRAME_VERSION_MIN);
}

static void test_earlier_versions_are_refused(void **state)
{
	struct pair *p = *state;

	assert_int_equal(preface(p, "syncd\0\1\3", 8), FRAME_VERSION);
	assert_int_equal(frame_reader_version(p->r), 0);
}

static void test_impossible_versions(void **state)
{
	struct pair *p = *state;

	assert_int_equal(preface(p, "syncd\0\x2\x1", 8), -EBADMSG);
}

static void test_version_zero(void **state)
{
	struct pair *p = *state;

	assert_int_equal(preface(p, "syncd\0\0\1", 8), -EBADMSG);
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(test_round_trip_of_all_sizes),
		T(test_bytes_one_by_one),
		T(test_many_frames_in_one_feed),
		T(test_prepared),
		T(test_compression_only_where_it_pays),
		T(test_noise_is_passed),
		T(test_shared_context),
		T(test_noise_in_a_shared_context),
		T(test_levels),
		T(test_a_full_output_is_not_half_written),
		T(test_every_flipped_bit_is_seen),
		T(test_dropped_doubled_and_swapped_frames_are_seen),
		T(test_an_error_is_final),
		T(test_over_long_is_refused_at_the_header),
		T(test_huge_length_is_refused_at_the_header),
		T(test_unknown_type),
		T(test_unknown_flags),
		T(test_reserved_field),
		T(test_crafted_frame_is_good_to_begin_with),
		T(test_zstd_announces_less_or_more),
		T(test_zstd_bomb),
		T(test_zstd_without_content_size),
		T(test_zstd_two_frames_or_rest),
		T(test_zstd_cut),
		T(test_hostile_contexts),
		T(test_context_of_an_earlier_version),
		T(test_zstd_flag_without_anything),
		T(test_zstd_skippable_frame),
		T(test_feeding_without_reading_is_refused),
		T(test_payload_stays_until_the_next_call),
		T(test_foreign_stream_is_told_at_once),
		T(test_foreign_stream_with_nul),
		T(test_part_of_a_preface_waits),
		T(test_no_common_version),
		T(test_earlier_version),
		T(test_earlier_versions_are_refused),
		T(test_impossible_versions),
		T(test_version_zero),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
