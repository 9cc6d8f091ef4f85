/*
 * transfer/pieces.h — differences inside a chunk, in the same round trip. No input or output.
 *
 *   taker    cuts what it has of the old version (merkle/chunker.h, chunker_piece) and names the pieces with the request
 *   sender   cuts its chunk the same way, and answers with references to named pieces, and the bytes between them
 *   taker    puts the chunk together; the chunk's hash decides whether that stands, else it asks for the whole chunk
 *
 * A name is the low 32 bits of the piece's XXH3, seeded by the session: a wrong match costs a chunk, so that short names
 * are the cheaper ones. A single edit in b old bytes costs 4 b / p bytes of names and about 2.2 p bytes around it (measured), with
 * pieces of p bytes: p and 2 p cost the same at b = 1.1 p², see pieces_bits.
 *
 * The nodes of a chunk tree are told in the same way (transfer/fetch_nodes.c): their pieces are entries, and the node's hash decides.
 *
 * Answer: until the chunk is complete, a varint v, then: v even: v / 2 bytes of the chunk; v odd: v / 2 pieces, with
 * successive numbers; the first is given by a varint, as its distance from the number after the last one (zigzag; from 0).
 */
#ifndef TRANSFER_PIECES_H
#define TRANSFER_PIECES_H

#include "base/buf.h"
#include "merkle/chunker.h"

#define PIECES_NAMES_MAX 2048 /* of one request */
#define PIECES_ENTRIES 0      /* as `bits`: what is cut are nodes of chunk trees, one piece an entry */

/* The parameter for an edit in so many old bytes. */
uint8_t pieces_bits(uint64_t bytes);

/* --- the taker --- */

struct piece {
	uint32_t name;
	uint32_t length;
	uint64_t offset; /* in the old version */
};

/* Cut p[0..n), which stands at `offset` of the old version, into ret[*ret_n …], as far as there is room for `max`. */
void pieces_cut(const uint8_t *p, size_t n, uint64_t offset, uint8_t bits, uint64_t seed, struct piece *ret, size_t max,
	size_t *ret_n);

enum pieces_outcome {
	PIECES_LONG = 1, /* an answer would be longer than it may */
	PIECES_LOST,	 /* the old version could not be read */
};

/* How many pieces that would be. */
size_t pieces_count(const uint8_t *p, size_t n, uint8_t bits);

/* The answer's chunk of `length` bytes. `read`: n bytes of the old version at an offset, 0 or anything else. -EBADMSG: no
 * answer that could come; PIECES_LOST. */
typedef int pieces_read(void *ret, size_t n, uint64_t offset, void *data);
int pieces_rebuild(const void *answer, size_t n_answer, const struct piece *pieces, size_t n_pieces, pieces_read *read,
	void *data, uint8_t *ret, size_t length);

/* --- the sender --- */

struct pieces_table;
int pieces_table_new(struct pieces_table **ret, const uint32_t *names, size_t n); /* names: not owned, outlive it */
void pieces_table_free(struct pieces_table *t);

/* Appends the answer for a chunk p[0..n) to ret. PIECES_LONG: it would have more than `max` bytes, nothing is appended. */
int pieces_answer(const struct pieces_table *t, const uint8_t *p, size_t n, uint8_t bits, uint64_t seed, size_t max,
	struct buf *ret);

#endif
