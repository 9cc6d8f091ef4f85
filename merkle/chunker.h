/*
 * merkle/chunker.h — content-defined chunking with a gear rolling hash, normalised (FastCDC's idea:
 * a harder mask before the average, an easier one after it).
 *
 * A chunk is between avg/4 and avg*4 bytes (the last one may be shorter); avg = 2^bits with
 * bits = 15 … 20. The masks are nested: a cut at bits+1 before normalisation is also one at bits, so files that
 * grow past a step keep many boundaries. Files of at most CHUNK_SINGLE_BYTES_MAX are one chunk whatever `bits` is.
 *
 * A hole is a run of zero bytes and nothing else: boundaries and hashes depend on the bytes only, never on
 * the file's allocation. The gear table is such that zeros never match a mask: a run of zeros is cut at the
 * maximum only, so that a hole is crossed without reading.
 */
#ifndef MERKLE_CHUNKER_H
#define MERKLE_CHUNKER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/pool.h"
#include "merkle/hash.h"

#define CHUNK_BITS_MIN 15
#define CHUNK_BITS_MAX 20
#define CHUNK_BYTES_MAX (UINT32_C(4) << CHUNK_BITS_MAX) /* 4 MiB: no chunk is longer */
#define CHUNK_SINGLE_BYTES_MAX (UINT32_C(2) << CHUNK_BITS_MIN) /* a file up to here is one chunk */

/* clamp(size / 32768, 32 KiB, 1 MiB), rounded down to a power of two: the parameter of a file of that size. */
uint8_t chunk_bits_for_size(uint64_t size);
/* No content of that size has more chunks. */
uint64_t chunk_count_max(uint64_t size, uint8_t bits);

struct chunk {
	struct hash hash; /* of its bytes */
	uint64_t offset;  /* in the file */
	uint32_t length;  /* bytes; 0 only for the one chunk of an empty file */
	bool zero;	  /* all bytes are 0: a hole where it is written */
};

/* Length of the first chunk of p[0..n); `last`: nothing follows p[n-1]. Needs n >= 4 × avg unless last.
 * O(n), no allocation: the pure core, for tests and fuzzing. */
size_t chunker_cut(const uint8_t *p, size_t n, uint8_t bits, bool last);

/* Pieces are cut the same way, finer, and never stored (transfer/pieces.h): 2^8 … 2^13 bytes on average. */
#define PIECE_BITS_MIN 8
#define PIECE_BITS_MAX 13

/* Length of the first piece of p[0..n), n > 0, after which nothing follows. */
size_t chunker_piece(const uint8_t *p, size_t n, uint8_t bits);

/* Called for each chunk in order. Return non-zero to stop; it is passed on. `bytes` is valid during the call, and NULL for
 * a chunk of zeros (written or hole) and for the empty one. */
typedef int chunker_emit(const struct chunk *chunk, const uint8_t *bytes, void *data);

/* An open regular file of `size` bytes, and how to cut it. */
struct chunker_file {
	int fd;
	uint64_t size;
	uint8_t bits;
	enum hash_algorithm algorithm;
	struct pool *pool;	       /* hashes while the caller reads and cuts; NULL: all is done in turn */
	bool uncached;		       /* what is read does not stay in memory (file_read_as) */
	struct pace *pace;	       /* of reading and cutting; NULL: no limit */
	bool (*cancelled)(void *data); /* asked at each chunk: -ECANCELED. NULL: never */
	void *data;
};

/*
 * Cut the file. Reads sequentially with a buffer of 2 × 4 × avg bytes (with a pool, two of them; owned, freed before return),
 * skipping holes (SEEK_DATA), unless it is one chunk whatever it holds. A file that is shorter than size when read returns
 * CHUNKER_CHANGED; bytes beyond size are not looked at. A file of size 0 emits one chunk of length 0.
 */
enum chunker_outcome { CHUNKER_CHANGED = 1 };
int chunker_run_file(const struct chunker_file *file, chunker_emit *emit, void *data);

#endif
