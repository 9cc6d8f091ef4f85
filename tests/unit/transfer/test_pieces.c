/* tests/unit/transfer/test_pieces.c */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "tests/random.h"
#include "transfer/pieces.h"

#define SEED 99

static uint64_t random_state;

static uint64_t random_number(void)
{
	return test_random(&random_state);
}

static size_t below(size_t n)
{
	return (size_t)(random_number() % n);
}

static void fill(uint8_t *p, size_t n)
{
	while (n--)
		*p++ = (uint8_t)random_number();
}

/* The old version, as the taker has it. */
struct old {
	uint8_t *p;
	size_t n;
	struct piece pieces[PIECES_NAMES_MAX];
	size_t n_pieces;
	bool lost;
};

static int read_old(void *ret, size_t n, uint64_t offset, void *data)
{
	const struct old *old = data;

	if (old->lost || offset > old->n || n > old->n - offset)
		return -EIO;
	memcpy(ret, old->p + offset, n);
	return 0;
}

static void cut(struct old *old, uint8_t bits)
{
	old->n_pieces = 0;
	pieces_cut(old->p, old->n, 0, bits, SEED, old->pieces, PIECES_NAMES_MAX, &old->n_pieces);
}

static int answer(const struct old *old, const uint8_t *p, size_t n, uint8_t bits, size_t max, struct buf *ret)
{
	static uint32_t names[PIECES_NAMES_MAX];
	struct pieces_table *t;
	int r;

	for (size_t i = 0; i < old->n_pieces; i++)
		names[i] = old->pieces[i].name;
	assert_int_equal(pieces_table_new(&t, names, old->n_pieces), 0);
	r = pieces_answer(t, p, n, bits, SEED, max, ret);
	pieces_table_free(t);
	return r;
}

/* What it costs to tell p[0..n), and that it comes out as it was. */
static size_t tell(struct old *old, const uint8_t *p, size_t n, uint8_t bits)
{
	uint8_t *got = malloc(n + 1);
	struct buf b = BUF_INIT;
	size_t cost;

	cut(old, bits);
	assert_int_equal(answer(old, p, n, bits, 2 * n + 100, &b), 0);
	got[n] = 0xa5;
	assert_int_equal(pieces_rebuild(b.data, b.len, old->pieces, old->n_pieces, read_old, old, got, n), 0);
	assert_memory_equal(got, p, n);
	assert_int_equal(got[n], 0xa5);
	cost = b.len;
	free(got);
	buf_deinit(&b);
	return cost;
}

static void test_bits(void **state)
{
	(void)state;
	assert_int_equal(pieces_bits(0), PIECE_BITS_MIN);
	assert_int_equal(pieces_bits(65536), 8);
	assert_int_equal(pieces_bits(1 << 20), 10);
	assert_int_equal(pieces_bits(UINT64_C(1) << 40), PIECE_BITS_MAX);
}

static void test_an_edit_costs_a_piece(void **state)
{
	static uint8_t old_bytes[100000], new_bytes[100100];
	struct old old = {.p = old_bytes, .n = sizeof(old_bytes)};
	size_t total = 0, at;

	(void)state;
	random_state = 1;
	for (int i = 0; i < 50; i++) {
		fill(old_bytes, sizeof(old_bytes));
		at = below(sizeof(old_bytes));
		memcpy(new_bytes, old_bytes, at); /* ten bytes come in */
		fill(new_bytes + at, 10);
		memcpy(new_bytes + at + 10, old_bytes + at, sizeof(old_bytes) - at);
		total += tell(&old, new_bytes, sizeof(old_bytes) + 10, 9);
	}
	assert_true(total < 50 * 3 * 512);
	assert_int_equal(tell(&old, old_bytes, sizeof(old_bytes), 9) < 10, 1); /* all of it is one reference */
	assert_true(tell(&old, old_bytes + 50000, 50000, 9) < 2048);
}

static void test_any_mixture(void **state)
{
	static uint8_t old_bytes[40000], new_bytes[60000];
	struct old old = {.p = old_bytes};

	(void)state;
	random_state = 2;
	for (int i = 0; i < 400; i++) {
		size_t n = 0, parts = below(12);

		old.n = below(sizeof(old_bytes));
		fill(old_bytes, old.n);
		if (i % 5 == 0)
			memset(old_bytes, 0, old.n); /* pieces of one name */
		while (parts--) {
			size_t length = below(5000), from = below(old.n + 1);

			if (below(2)) {
				length = length < old.n - from ? length : old.n - from;
				memcpy(new_bytes + n, old_bytes + from, length);
			} else {
				fill(new_bytes + n, length);
			}
			n += length;
		}
		tell(&old, new_bytes, n, (uint8_t)(PIECE_BITS_MIN + below(PIECE_BITS_MAX - PIECE_BITS_MIN + 1)));
		tell(&old, new_bytes, n, PIECES_ENTRIES); /* whatever it is */
	}
}

/* A node of which one entry is another one, and told with those of the node before it, too. */
static void test_entries(void **state)
{
	struct buf nodes = BUF_INIT, node = BUF_INIT;
	struct old old;
	uint8_t hash[HASH_BYTES];

	(void)state;
	random_state = 5;
	for (uint64_t i = 0; i < 300; i++) {
		fill(hash, sizeof(hash));
		put_bytes(&nodes, hash, sizeof(hash));
		put_varint(&nodes, 60 + i * 40);
		put_u8(&nodes, 0);
	}
	old = (struct old){.p = nodes.data, .n = nodes.len};
	assert_int_equal(pieces_count(nodes.data, nodes.len, PIECES_ENTRIES), 300);
	put_bytes(&node, nodes.data + nodes.len / 2, nodes.len - nodes.len / 2);
	assert_true(tell(&old, nodes.data, nodes.len, PIECES_ENTRIES) < 8);
	nodes.data[nodes.len - 20] ^= 1;
	node.data[node.len / 2] ^= 1;
	assert_true(tell(&old, node.data, node.len, PIECES_ENTRIES) < 3 * (HASH_BYTES + 4) + 16);
	buf_deinit(&nodes);
	buf_deinit(&node);
}

static void test_never_longer_than_it_may(void **state)
{
	static uint8_t old_bytes[20000], new_bytes[20000];
	struct old old = {.p = old_bytes, .n = sizeof(old_bytes)};
	struct buf b = BUF_INIT;

	(void)state;
	random_state = 3;
	fill(old_bytes, sizeof(old_bytes));
	fill(new_bytes, sizeof(new_bytes));
	memcpy(new_bytes, old_bytes, 5000);
	cut(&old, 8);
	put_u8(&b, 7);
	assert_int_equal(answer(&old, new_bytes, sizeof(new_bytes), 8, 14000, &b), PIECES_LONG);
	assert_int_equal(b.len, 1);
	assert_int_equal(answer(&old, new_bytes, sizeof(new_bytes), 8, 19999, &b), 0);
	assert_true(b.len < 17000);
	buf_deinit(&b);
}

static void test_room_for_names(void **state)
{
	uint8_t *bytes = calloc(1, 3000000);
	struct old old = {.p = bytes, .n = 3000000};

	(void)state;
	random_state = 4;
	fill(bytes, old.n);
	cut(&old, PIECE_BITS_MIN);
	assert_int_equal(old.n_pieces, PIECES_NAMES_MAX);
	tell(&old, bytes, old.n, PIECE_BITS_MIN);
	free(bytes);
}

static void test_the_old_version_is_gone(void **state)
{
	static uint8_t bytes[5000], got[5000];
	struct old old = {.p = bytes, .n = sizeof(bytes)};
	struct buf b = BUF_INIT;

	(void)state;
	random_state = 5;
	fill(bytes, sizeof(bytes));
	cut(&old, 8);
	assert_int_equal(answer(&old, bytes, sizeof(bytes), 8, 5000, &b), 0);
	old.lost = true;
	assert_int_equal(pieces_rebuild(b.data, b.len, old.pieces, old.n_pieces, read_old, &old, got, sizeof(got)), PIECES_LOST);
	buf_deinit(&b);
}

static int rebuild(struct old *old, const char *answer, size_t n, size_t length)
{
	uint8_t *exact = malloc(n ? n : 1), *got = malloc(length ? length : 1); /* so that a sanitizer sees the first byte too far */
	int r;

	memcpy(exact, answer, n);
	r = pieces_rebuild(exact, n, old->pieces, old->n_pieces, read_old, old, got, length);
	free(exact);
	free(got);
	return r;
}

static void test_answers_that_can_not_be(void **state)
{
	static uint8_t bytes[3000];
	struct old old = {.p = bytes, .n = sizeof(bytes)};
	size_t all = sizeof(bytes);

	(void)state;
	random_state = 6;
	fill(bytes, sizeof(bytes));
	cut(&old, 8);
	assert_in_range(old.n_pieces, 4, 40);
	assert_int_equal(rebuild(&old, "", 0, 0), 0);
	assert_int_equal(rebuild(&old, "\x04" "ab", 3, 2), 0);
	assert_int_equal(rebuild(&old, "", 0, 1), -EBADMSG);		    /* nothing */
	assert_int_equal(rebuild(&old, "\x04" "ab", 3, 3), -EBADMSG);	    /* too little */
	assert_int_equal(rebuild(&old, "\x04" "ab", 3, 1), -EBADMSG);	    /* too much */
	assert_int_equal(rebuild(&old, "\x06" "ab", 3, 3), -EBADMSG);	    /* cut */
	assert_int_equal(rebuild(&old, "\x04" "abc", 4, 2), -EBADMSG);	    /* more than the chunk */
	assert_int_equal(rebuild(&old, "\x00\x04" "ab", 4, 2), -EBADMSG);   /* no bytes */
	assert_int_equal(rebuild(&old, "\x01\x00", 2, all), -EBADMSG);	    /* no pieces */
	assert_int_equal(rebuild(&old, "\x03\x01", 2, all), -EBADMSG);	    /* number -1 */
	assert_int_equal(rebuild(&old, "\x03\x64", 2, all), -EBADMSG);	    /* number 50 */
	assert_int_equal(rebuild(&old, "\x03\xff\xff\x03", 4, all), -EBADMSG);
	assert_int_equal(rebuild(&old, "\x53\x00", 2, all), -EBADMSG);	    /* 41 pieces */
	assert_int_equal(rebuild(&old, "\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01\x00", 11, all), -EBADMSG);
	assert_int_equal(rebuild(&old, "\xfe\xff\xff\xff\xff\xff\xff\xff\xff\x01", 10, all), -EBADMSG);
	assert_int_equal(rebuild(&old, "\x03\x00", 2, 10), -EBADMSG);	    /* a piece that is longer than the chunk */
	assert_int_equal(rebuild(&old, "\x03\x00", 2, old.pieces[0].length), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_bits),
		cmocka_unit_test(test_an_edit_costs_a_piece),
		cmocka_unit_test(test_any_mixture),
		cmocka_unit_test(test_entries),
		cmocka_unit_test(test_never_longer_than_it_may),
		cmocka_unit_test(test_room_for_names),
		cmocka_unit_test(test_the_old_version_is_gone),
		cmocka_unit_test(test_answers_that_can_not_be),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
