/*
 * tests/fuzz/fuzz_pieces.c — a hostile answer to names of pieces, and the sender's own.
 *
 * Input: u8 piece bits, or that they are entries, u16 length of the chunk, u16 bytes of the old version, these bytes; the rest is the answer to them. It
 * is also a chunk: told with the old version's names it must come out as it is.
 */
#include <stdlib.h>
#include <string.h>

#include "transfer/pieces.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

struct old {
	const uint8_t *p;
	size_t n;
};

static int read_old(void *ret, size_t n, uint64_t offset, void *data)
{
	const struct old *old = data;

	if (offset > old->n || n > old->n - offset)
		abort(); /* no piece is there */
	memcpy(ret, old->p + offset, n);
	return 0;
}

static void tell(struct old *old, const struct piece *pieces, size_t n_pieces, uint8_t bits, const uint8_t *p, size_t n)
{
	uint32_t names[PIECES_NAMES_MAX];
	struct pieces_table *t;
	struct buf b = BUF_INIT;
	uint8_t *got = malloc(n + 1);

	for (size_t i = 0; i < n_pieces; i++)
		names[i] = pieces[i].name;
	if (!got || pieces_table_new(&t, names, n_pieces) < 0 || pieces_answer(t, p, n, bits, 1, SIZE_MAX, &b) != 0)
		abort();
	if (pieces_rebuild(b.data, b.len, pieces, n_pieces, read_old, old, got, n) != 0)
		abort();
	if (n && memcmp(got, p, n) != 0)
		abort();
	pieces_table_free(t);
	buf_deinit(&b);
	free(got);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	struct cursor c = cursor_over(data, n);
	uint8_t cut = get_u8(&c) % (PIECE_BITS_MAX - PIECE_BITS_MIN + 2), bits = cut + PIECE_BITS_MIN > PIECE_BITS_MAX ? PIECES_ENTRIES : (uint8_t)(cut + PIECE_BITS_MIN);
	size_t length = get_u16(&c), n_pieces = 0;
	struct piece pieces[PIECES_NAMES_MAX];
	struct old old;
	uint8_t *got;

	old.n = get_u16(&c);
	old.p = c.p;
	if (c.failed || old.n > cursor_left(&c) || !(got = malloc(length + 1)))
		return 0;
	c.p += old.n;
	pieces_cut(old.p, old.n, 0, bits, 1, pieces, PIECES_NAMES_MAX, &n_pieces);
	(void)pieces_rebuild(c.p, cursor_left(&c), pieces, n_pieces, read_old, &old, got, length);
	free(got);
	tell(&old, pieces, n_pieces, bits, c.p, cursor_left(&c));
	return 0;
}
