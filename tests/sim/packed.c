/*
 * tests/sim/packed.c — zstd's ZSTD_compress2, with a memory of large payloads, as tests/sim/digest.c has one of what was hashed: the
 * same few large contents are packed again and again, by each replica that sends them, in each history. Small ones are messages,
 * hardly ever the same. Linked with --wrap.
 */
#define ZSTD_STATIC_LINKING_ONLY /* ZSTD_CCtx_getParameter */
#include <string.h>
#include <xxhash.h>
#include <zstd.h>

#include "tests/sim/fs_internal.h"

#define SLOTS 128
#define LARGE_BYTES 8192
#define LARGE_BYTES_MAX 65536

struct packed {
	XXH128_hash_t name;
	size_t n, room; /* n 0: none */
	int level;
	size_t result; /* of ZSTD_compress2 */
	uint8_t bytes[LARGE_BYTES_MAX];
};

size_t __real_ZSTD_compress2(ZSTD_CCtx *context, void *ret, size_t room, const void *p, size_t n);
size_t __wrap_ZSTD_compress2(ZSTD_CCtx *context, void *ret, size_t room, const void *p, size_t n);

size_t __wrap_ZSTD_compress2(ZSTD_CCtx *context, void *ret, size_t room, const void *p, size_t n)
{
	static struct packed *packed;
	XXH128_hash_t name;
	struct packed *k;
	int level = 0;

	if (n < LARGE_BYTES || room > LARGE_BYTES_MAX ||
			ZSTD_isError(ZSTD_CCtx_getParameter(context, ZSTD_c_compressionLevel, &level)))
		return __real_ZSTD_compress2(context, ret, room, p, n);
	if (!packed)
		packed = sim_alloc(SLOTS * sizeof(*packed));
	name = XXH3_128bits(p, n);
	k = &packed[(name.low64 ^ (uint64_t)level) % SLOTS];
	if (k->n != n || k->room != room || k->level != level || !XXH128_isEqual(k->name, name)) {
		k->name = name;
		k->n = n;
		k->room = room;
		k->level = level;
		k->result = __real_ZSTD_compress2(context, k->bytes, room, p, n);
	}
	if (!ZSTD_isError(k->result))
		memcpy(ret, k->bytes, k->result);
	return k->result;
}
