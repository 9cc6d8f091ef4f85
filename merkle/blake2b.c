/*
 * merkle/blake2b.c — see merkle/blake2b.h.
 *
 * The state is a matrix of four rows of four words, a row in each register, so that one instruction does a step for four columns:
 *
 *   a   v0  v1  v2  v3        half a round mixes the columns (v0 v4 v8 v12), …; the other one the diagonals (v0 v5 v10 v15), …, which
 *   b   v4  v5  v6  v7        become columns by turning the rows. It is a, c and d that are turned here, as b is what the next step
 *   c   v8  v9  v10 v11       waits for; the columns are those beginning with v3, v0, v1, v2 then, and the words of the message
 *   d   v12 v13 v14 v15       come in that order.
 */
#include "merkle/blake2b.h"

#include <stdlib.h>
#include <string.h>

#if defined(__x86_64__)
#include <immintrin.h>

#define ROUNDS 12

static const uint64_t iv[8] = {
	0x6a09e667f3bcc908, 0xbb67ae8584caa73b, 0x3c6ef372fe94f82b, 0xa54ff53a5f1d36f1,
	0x510e527fade682d1, 0x9b05688c2b3e6c1f, 0x1f83d9abfb41bd6b, 0x5be0cd19137e2179,
};

static const uint8_t sigma[ROUNDS][16] = {
	{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15},
	{14, 10, 4, 8, 9, 15, 13, 6, 1, 12, 0, 2, 11, 7, 5, 3},
	{11, 8, 12, 0, 5, 2, 15, 13, 10, 14, 3, 6, 7, 1, 9, 4},
	{7, 9, 3, 1, 13, 12, 11, 14, 2, 6, 5, 10, 4, 0, 15, 8},
	{9, 0, 5, 7, 2, 4, 10, 15, 14, 1, 11, 12, 6, 8, 3, 13},
	{2, 12, 6, 10, 0, 11, 8, 3, 4, 13, 7, 5, 15, 14, 1, 9},
	{12, 5, 1, 15, 14, 13, 4, 10, 0, 7, 6, 3, 9, 2, 8, 11},
	{13, 11, 7, 14, 12, 1, 3, 9, 5, 0, 15, 4, 8, 6, 2, 10},
	{6, 15, 14, 9, 11, 3, 0, 8, 12, 2, 13, 7, 1, 4, 10, 5},
	{10, 2, 8, 4, 7, 6, 1, 5, 15, 11, 9, 14, 3, 12, 13, 0},
	{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15},
	{14, 10, 4, 8, 9, 15, 13, 6, 1, 12, 0, 2, 11, 7, 5, 3},
};

#define AVX2 __attribute__((target("avx2")))
#define AVX2_INLINE __attribute__((target("avx2"), always_inline)) static inline

struct rows {
	__m256i a, b, c, d;
};

AVX2_INLINE __m256i load4(const uint64_t *p)
{
	return _mm256_loadu_si256((const __m256i *)p);
}

AVX2_INLINE __m256i words(const uint64_t m[16], unsigned w0, unsigned w1, unsigned w2, unsigned w3)
{
	return _mm256_set_epi64x((long long)m[w3], (long long)m[w2], (long long)m[w1], (long long)m[w0]);
}

AVX2_INLINE __m256i xor_right_32(__m256i x, __m256i y)
{
	return _mm256_shuffle_epi32(_mm256_xor_si256(x, y), 0xb1);
}

AVX2_INLINE __m256i xor_right_24(__m256i x, __m256i y)
{
	const __m256i from = _mm256_setr_epi8(3, 4, 5, 6, 7, 0, 1, 2, 11, 12, 13, 14, 15, 8, 9, 10, 3, 4, 5, 6, 7, 0, 1, 2, 11, 12, 13, 14, 15, 8, 9, 10);

	return _mm256_shuffle_epi8(_mm256_xor_si256(x, y), from);
}

AVX2_INLINE __m256i xor_right_16(__m256i x, __m256i y)
{
	const __m256i from = _mm256_setr_epi8(2, 3, 4, 5, 6, 7, 0, 1, 10, 11, 12, 13, 14, 15, 8, 9, 2, 3, 4, 5, 6, 7, 0, 1, 10, 11, 12, 13, 14, 15, 8, 9);

	return _mm256_shuffle_epi8(_mm256_xor_si256(x, y), from);
}

AVX2_INLINE __m256i xor_right_63(__m256i x, __m256i y)
{
	__m256i z = _mm256_xor_si256(x, y);

	return _mm256_xor_si256(_mm256_srli_epi64(z, 63), _mm256_add_epi64(z, z));
}

/* All four columns: x and y are the words that go into each. */
AVX2_INLINE void mix(struct rows *v, __m256i x, __m256i y)
{
	v->a = _mm256_add_epi64(_mm256_add_epi64(v->a, x), v->b);
	v->d = xor_right_32(v->d, v->a);
	v->c = _mm256_add_epi64(v->c, v->d);
	v->b = xor_right_24(v->b, v->c);
	v->a = _mm256_add_epi64(_mm256_add_epi64(v->a, y), v->b);
	v->d = xor_right_16(v->d, v->a);
	v->c = _mm256_add_epi64(v->c, v->d);
	v->b = xor_right_63(v->b, v->c);
}

AVX2_INLINE void mix_round(struct rows *v, const uint64_t m[16], const uint8_t s[16])
{
	mix(v, words(m, s[0], s[2], s[4], s[6]), words(m, s[1], s[3], s[5], s[7]));
	v->a = _mm256_permute4x64_epi64(v->a, 0x93);
	v->d = _mm256_permute4x64_epi64(v->d, 0x4e);
	v->c = _mm256_permute4x64_epi64(v->c, 0x39);
	mix(v, words(m, s[14], s[8], s[10], s[12]), words(m, s[15], s[9], s[11], s[13]));
	v->a = _mm256_permute4x64_epi64(v->a, 0x39);
	v->d = _mm256_permute4x64_epi64(v->d, 0x4e);
	v->c = _mm256_permute4x64_epi64(v->c, 0x93);
}

/* count: bytes up to the first block's end; last: all bits set for the last block, else 0. */
AVX2 static void compress(uint64_t h[8], const uint8_t *p, size_t blocks, uint64_t count, uint64_t last)
{
	__m256i h0 = load4(h), h1 = load4(h + 4);

	for (; blocks; blocks--, p += BLAKE2B_BLOCK_BYTES, count += BLAKE2B_BLOCK_BYTES) {
		__m256i told = _mm256_set_epi64x(0, (long long)last, 0, (long long)count);
		struct rows v = {h0, h1, load4(iv), _mm256_xor_si256(load4(iv + 4), told)};
		uint64_t m[16];

		memcpy(m, p, sizeof(m));
#pragma GCC unroll 12
		for (int i = 0; i < ROUNDS; i++)
			mix_round(&v, m, sigma[i]);
		h0 = _mm256_xor_si256(h0, _mm256_xor_si256(v.a, v.c));
		h1 = _mm256_xor_si256(h1, _mm256_xor_si256(v.b, v.d));
	}
	_mm256_storeu_si256((__m256i *)h, h0);
	_mm256_storeu_si256((__m256i *)(h + 4), h1);
}

bool blake2b_possible(void)
{
	return __builtin_cpu_supports("avx2");
}

void blake2b_init(struct blake2b *b)
{
	memcpy(b->h, iv, sizeof(b->h));
	b->h[0] ^= 0x01010000 ^ BLAKE2B_BYTES; /* as many bytes of hash, no key, no tree */
	b->count = 0;
	b->n = 0;
}

void blake2b_update(struct blake2b *b, const void *bytes, size_t n)
{
	const uint8_t *p = bytes;
	size_t room = sizeof(b->block) - b->n, blocks;

	if (n > room && b->n) {
		memcpy(b->block + b->n, p, room);
		compress(b->h, b->block, 1, b->count += BLAKE2B_BLOCK_BYTES, 0);
		b->n = 0;
		p += room;
		n -= room;
	}
	if (n > sizeof(b->block)) {
		blocks = (n - 1) / BLAKE2B_BLOCK_BYTES;
		compress(b->h, p, blocks, b->count + BLAKE2B_BLOCK_BYTES, 0);
		b->count += blocks * BLAKE2B_BLOCK_BYTES;
		p += blocks * BLAKE2B_BLOCK_BYTES;
		n -= blocks * BLAKE2B_BLOCK_BYTES;
	}
	if (n)
		memcpy(b->block + b->n, p, n);
	b->n += n;
}

void blake2b_finish(struct blake2b *b, uint8_t ret[BLAKE2B_BYTES])
{
	memset(b->block + b->n, 0, sizeof(b->block) - b->n);
	compress(b->h, b->block, 1, b->count + b->n, UINT64_MAX);
	memcpy(ret, b->h, BLAKE2B_BYTES); /* little-endian, as this processor is */
}

#else

bool blake2b_possible(void)
{
	return false;
}

void blake2b_init(struct blake2b *b)
{
	(void)b;
	abort();
}

void blake2b_update(struct blake2b *b, const void *p, size_t n)
{
	(void)b;
	(void)p;
	(void)n;
	abort();
}

void blake2b_finish(struct blake2b *b, uint8_t ret[BLAKE2B_BYTES])
{
	(void)b;
	(void)ret;
	abort();
}

#endif
