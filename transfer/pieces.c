/*
 * transfer/pieces.c — see transfer/pieces.h. Cutting begins anew with each chunk, and with each range of old bytes: the cuts agree
 * from the first one on that both have.
 */
#include "transfer/pieces.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "merkle/chunk_tree.h"

uint8_t pieces_bits(uint64_t bytes)
{
	uint8_t bits = PIECE_BITS_MIN;

	while (bits < PIECE_BITS_MAX && UINT64_C(1) << (2 * bits) < bytes)
		bits++;
	return bits;
}

static uint32_t name_of(const uint8_t *p, size_t n, uint64_t seed)
{
	return (uint32_t)hash_fast(p, n, seed);
}

static size_t cut(const uint8_t *p, size_t n, uint8_t bits)
{
	return bits == PIECES_ENTRIES ? chunk_tree_entry_bytes(p, n) : chunker_piece(p, n, bits);
}

/* --- the taker --- */

size_t pieces_count(const uint8_t *p, size_t n, uint8_t bits)
{
	size_t count = 0;

	for (size_t at = 0; at < n; at += cut(p + at, n - at, bits))
		count++;
	return count;
}

void pieces_cut(const uint8_t *p, size_t n, uint64_t offset, uint8_t bits, uint64_t seed, struct piece *ret, size_t max,
	size_t *ret_n)
{
	for (size_t at = 0, length; at < n && *ret_n < max; at += length) {
		length = cut(p + at, n - at, bits);
		ret[(*ret_n)++] = (struct piece){name_of(p + at, length, seed), (uint32_t)length, offset + at};
	}
}

/* Copy pieces[first … first + n); those that follow each other in the old version are read at once. */
static int copy_pieces(const struct piece *pieces, size_t first, size_t n, pieces_read *read, void *data, uint8_t *ret,
	size_t *at, size_t length)
{
	while (n) {
		const struct piece *from = &pieces[first];
		size_t bytes = 0;

		do {
			bytes += pieces[first++].length;
			n--;
		} while (n && pieces[first].offset == from->offset + bytes);
		if (bytes > length - *at)
			return -EBADMSG;
		if (read(ret + *at, bytes, from->offset, data) != 0)
			return PIECES_LOST;
		*at += bytes;
	}
	return 0;
}

int pieces_rebuild(const void *answer, size_t n_answer, const struct piece *pieces, size_t n_pieces, pieces_read *read,
	void *data, uint8_t *ret, size_t length)
{
	struct cursor c = cursor_over(answer, n_answer);
	size_t at = 0, next = 0;
	int r = 0;

	while (r == 0 && at < length && !c.failed) {
		uint64_t v = get_varint(&c), n = v / 2, zigzag;

		if (!n)
			return -EBADMSG;
		if (!(v & 1)) {
			if (n > length - at)
				return -EBADMSG;
			get_bytes(&c, ret + at, n);
			at += n;
			continue;
		}
		zigzag = get_varint_max(&c, 2 * (uint64_t)n_pieces);
		next += zigzag & 1 ? ~(size_t)(zigzag / 2) : (size_t)(zigzag / 2);
		if (c.failed || next >= n_pieces || n > n_pieces - next)
			return -EBADMSG;
		r = copy_pieces(pieces, next, n, read, data, ret, &at, length);
		next += n;
	}
	return r ? r : cursor_finish(&c);
}

/* --- the sender --- */

struct pieces_table {
	const uint32_t *names;
	size_t n;
	uint32_t order[]; /* numbers by (name, number) */
};

static int compare_names(const void *a, const void *b, void *data)
{
	const uint32_t *names = data;
	uint32_t i = *(const uint32_t *)a, j = *(const uint32_t *)b;

	return names[i] != names[j] ? (names[i] > names[j]) - (names[i] < names[j]) : (i > j) - (i < j);
}

int pieces_table_new(struct pieces_table **ret, const uint32_t *names, size_t n)
{
	struct pieces_table *t = malloc(sizeof(*t) + n * sizeof(*t->order));

	if (!t)
		return -ENOMEM;
	t->names = names;
	t->n = n;
	for (size_t i = 0; i < n; i++)
		t->order[i] = (uint32_t)i;
	qsort_r(t->order, n, sizeof(*t->order), compare_names, (void *)names);
	*ret = t;
	return 0;
}

void pieces_table_free(struct pieces_table *t)
{
	free(t);
}

/* The piece of that name: `next` if it has it, else the first one; n if none has. */
static size_t find_name(const struct pieces_table *t, uint32_t name, size_t next)
{
	size_t low = 0, high = t->n;

	if (next < t->n && t->names[next] == name)
		return next;
	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (t->names[t->order[middle]] < name)
			low = middle + 1;
		else
			high = middle;
	}
	return low < t->n && t->names[t->order[low]] == name ? t->order[low] : t->n;
}

/* What was found and is not written yet: bytes, then pieces. */
struct answer {
	struct buf *out;
	const uint8_t *bytes;
	size_t n_bytes;
	size_t first, n_pieces;
	size_t next; /* the number after the last piece that was written */
};

static void flush(struct answer *a)
{
	if (a->n_bytes) {
		put_varint(a->out, 2 * (uint64_t)a->n_bytes);
		put_bytes(a->out, a->bytes, a->n_bytes);
		a->n_bytes = 0;
	}
	if (a->n_pieces) {
		put_varint(a->out, 2 * (uint64_t)a->n_pieces + 1);
		put_varint(a->out, a->first >= a->next ? 2 * (uint64_t)(a->first - a->next) : 2 * (uint64_t)(a->next - a->first) - 1);
		a->next = a->first + a->n_pieces;
		a->n_pieces = 0;
	}
}

static void add_piece(struct answer *a, const struct pieces_table *t, const uint8_t *p, size_t n, uint64_t seed)
{
	size_t follows = a->n_pieces ? a->first + a->n_pieces : a->next;
	size_t found = find_name(t, name_of(p, n, seed), follows);

	if (found == t->n) {
		if (a->n_pieces || !a->n_bytes) {
			flush(a);
			a->bytes = p;
		}
		a->n_bytes += n;
		return;
	}
	if (a->n_pieces && found != follows)
		flush(a);
	if (!a->n_pieces)
		a->first = found;
	a->n_pieces++;
}

int pieces_answer(const struct pieces_table *t, const uint8_t *p, size_t n, uint8_t bits, uint64_t seed, size_t max,
	struct buf *ret)
{
	struct answer a = {.out = ret};
	size_t start = ret->len;

	for (size_t at = 0, length; at < n; at += length) {
		length = cut(p + at, n - at, bits);
		add_piece(&a, t, p + at, length, seed);
		if (ret->len - start + a.n_bytes > max)
			break;
	}
	flush(&a);
	if (!buf_error(ret) && ret->len - start > max) {
		ret->len = start;
		return PIECES_LONG;
	}
	return buf_error(ret);
}
