/*
 * merkle/hash.h — content hashes of 32 bytes, and XXH3 for finding and for guarding.
 *
 * The folder's algorithm is fixed when the folder is created and decides whether bytes are what was
 * announced: SHA-256, BLAKE2b (BLAKE2b-512 cut to 32 bytes; for processors without SHA
 * extensions), or XXH3-128 (16 bytes and 16 zero bytes; only for content that nobody hostile writes).
 */
#ifndef MERKLE_HASH_H
#define MERKLE_HASH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define HASH_BYTES 32

enum hash_algorithm { /* values are part of the formats */
	HASH_SHA256 = 1,
	HASH_BLAKE2B = 2,
	HASH_XXH3 = 3,
};

struct hash {
	uint8_t bytes[HASH_BYTES];
};

/* "sha256", "blake2b", "xxh3". hash_algorithm_parse: 0 or -EINVAL. */
const char *hash_algorithm_name(enum hash_algorithm algorithm);
int hash_algorithm_parse(const char *name, enum hash_algorithm *ret);
bool hash_algorithm_known(uint8_t value);
/* For content that anybody may have written: which of the two is faster on this processor. */
enum hash_algorithm hash_algorithm_usual(void);

/* One-shot. Cannot fail (aborts if a library fails). Thread-safe. */
void hash_bytes(enum hash_algorithm algorithm, const void *p, size_t n, struct hash *ret);

/* Streaming. */
struct hash_state;
int hash_state_new(struct hash_state **ret, enum hash_algorithm algorithm);
void hash_state_free(struct hash_state *s);
void hash_state_update(struct hash_state *s, const void *p, size_t n);
void hash_state_finish(struct hash_state *s, struct hash *ret); /* and starts anew */

bool hash_equal(const struct hash *a, const struct hash *b);
int hash_compare(const struct hash *a, const struct hash *b); /* memcmp order */
bool hash_is_zero(const struct hash *a);
/* Lower-case hex of the first n bytes; ret has 2 n + 1 bytes. */
char *hash_hex(const struct hash *h, size_t n, char *ret);

/* XXH3-64, seeded. Never decides that content is the same. */
uint64_t hash_fast(const void *p, size_t n, uint64_t seed);

#endif
