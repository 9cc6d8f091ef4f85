/*
 * merkle/match.h — records of two copies that never met: equal values, other versions. No input or output.
 *
 * Where both have the same digest of a few neighbours' paths and values, neither has to show them: their versions are
 * told, and each side puts the other's records together from its own values. Both then decide on whole records.
 *
 * Versions of successive records are told as what they have in common with the one before. Those that a scan made, one event after
 * the other in path order, cost next to nothing. A record's different dots, in order, and in which of its five sets each is, are
 * its shape (for a directory, whose set for the mtime is empty, that set counts as equal to the state's).
 *
 *   varint 2 n         the next n ≥ 1 records are of the same shape, each with all counters one higher than the one before it
 *   varint 1           the same shape, other counters: for each dot the difference to the one before (zigzag varint, modulo 2^64)
 *   varint 3           another shape: u8 dots (1 … MATCH_DOTS_MAX), for each a varint, the number of its incarnation in a table, then for
 *                      vv, dots, lost, adots, mdots a u8 of bits, and the counters (varints)
 *   varint 5           vv, dots, lost, adots, mdots as in merkle/version.h; the shape for the next one stays
 */
#ifndef MERKLE_MATCH_H
#define MERKLE_MATCH_H

#include "merkle/record.h"

#define MATCH_DIGEST_BYTES 16
#define MATCH_DOTS_MAX 8
#define MATCH_INCARNATIONS_MAX 1024 /* in a table; dots of others are told in full */

struct match_digest {
	uint8_t bytes[MATCH_DIGEST_BYTES];
};

/* Over match_values of successive records, in path order; keyed by the session's seed. 0, or what befell `values`. */
void match_values(struct buf *b, const char *path, const struct record *r);
int match_digest(enum hash_algorithm algorithm, uint64_t seed, const struct buf *values, struct match_digest *ret);
bool match_digest_equal(const struct match_digest *a, const struct match_digest *b);

/* --- versions --- */

struct match_table { /* of one message */
	uint64_t *inc; /* owned */
	size_t n, cap;
};

struct match_shape {
	uint8_t n; /* 0: none yet */
	uint8_t sets[5];
	uint16_t inc[MATCH_DOTS_MAX]; /* numbers in the table */
	uint64_t counter[MATCH_DOTS_MAX];
};

/* Zero-initialised but for out and table, which it does not own; the table grows. match_end after the last record. Failures are sticky
 * in *out. */
struct match_writer {
	struct buf *out;
	struct match_table *table;
	struct match_shape last;
	uint64_t run;
};

void match_add(struct match_writer *w, const struct record *r);
void match_end(struct match_writer *w);

/* Zero-initialised but for the cursor and the table. */
struct match_reader {
	struct cursor c;
	const struct match_table *table;
	struct match_shape last;
	uint64_t run;
};

/* The next record: in_out has its values, and gets its versions. -EBADMSG: no record that may be. */
int match_next(struct match_reader *r, struct record *in_out);
/* -EBADMSG unless all was read. */
int match_finish(const struct match_reader *r);

#endif
