/*
 * merkle/hash.c — see merkle/hash.h.
 *
 * libcrypto looks an algorithm up by name at a cost well above that of hashing a small file, so
 * that each is fetched once per process; what is fetched is immutable and shared by all threads.
 * BLAKE2b is libsodium's, which has vectors for it; libcrypto's is plain C.
 */
#include "merkle/hash.h"

#include <errno.h>
#include <openssl/evp.h>
#include <pthread.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>
#define XXH_INLINE_ALL /* most that is hashed is short: cheaper than the call */
#include <xxhash.h>

#if defined(__x86_64__) || defined(__i386__)
#include <cpuid.h>
#elif defined(__aarch64__)
#include <asm/hwcap.h>
#include <sys/auxv.h>
#endif

#define BLAKE2B_ALIGNED _Alignof(crypto_generichash_blake2b_state)
#define BLAKE2B_BYTES 64 /* of which the first HASH_BYTES are taken, as of BLAKE2b-512 */

static const char *const names[] = {
	[HASH_SHA256] = "sha256",
	[HASH_BLAKE2B] = "blake2b",
	[HASH_XXH3] = "xxh3",
};

struct hash_state {
	EVP_MD_CTX *evp;   /* SHA-256; else NULL */
	XXH3_state_t *xxh; /* XXH3; else NULL */
	/* BLAKE2b, if it is neither: */
	uint8_t blake2b[sizeof(crypto_generichash_blake2b_state) + BLAKE2B_ALIGNED]; /* the state is somewhere in it: malloc aligns less */
};

static crypto_generichash_blake2b_state *blake2b_of(struct hash_state *s)
{
	return (void *)(((uintptr_t)s->blake2b + BLAKE2B_ALIGNED - 1) / BLAKE2B_ALIGNED * BLAKE2B_ALIGNED);
}

static const EVP_MD *sha256; /* set once, by prepare() */
static pthread_once_t prepared = PTHREAD_ONCE_INIT;

static void prepare(void)
{
	sha256 = EVP_MD_fetch(NULL, "SHA2-256", NULL);
	if (!sha256 || sodium_init() < 0) /* which looks what the processor can do */
		abort();
}

static void from_xxh(struct hash *ret, XXH128_hash_t h)
{
	XXH128_canonical_t canonical;

	XXH128_canonicalFromHash(&canonical, h);
	*ret = (struct hash){0};
	memcpy(ret->bytes, canonical.digest, sizeof(canonical.digest));
}

const char *hash_algorithm_name(enum hash_algorithm algorithm)
{
	return hash_algorithm_known((uint8_t)algorithm) ? names[algorithm] : "unknown";
}

int hash_algorithm_parse(const char *name, enum hash_algorithm *ret)
{
	for (unsigned i = HASH_SHA256; i <= HASH_XXH3; i++) {
		if (strcmp(name, names[i]))
			continue;
		*ret = (enum hash_algorithm)i;
		return 0;
	}
	return -EINVAL;
}

bool hash_algorithm_known(uint8_t value)
{
	return value >= HASH_SHA256 && value <= HASH_XXH3;
}

static bool has_sha_extensions(void)
{
#if defined(__x86_64__) || defined(__i386__)
	unsigned a, b, c, d;

	return __get_cpuid_count(7, 0, &a, &b, &c, &d) && b & bit_SHA;
#elif defined(__aarch64__)
	return getauxval(AT_HWCAP) & HWCAP_SHA2;
#else
	return false;
#endif
}

enum hash_algorithm hash_algorithm_usual(void)
{
	return has_sha_extensions() ? HASH_SHA256 : HASH_BLAKE2B;
}

void hash_bytes(enum hash_algorithm algorithm, const void *p, size_t n, struct hash *ret)
{
	uint8_t digest[EVP_MAX_MD_SIZE];

	if (algorithm == HASH_XXH3) {
		from_xxh(ret, XXH3_128bits(p, n));
		return;
	}
	pthread_once(&prepared, prepare);
	if (algorithm == HASH_BLAKE2B)
		crypto_generichash_blake2b(digest, BLAKE2B_BYTES, p, n, NULL, 0);
	else if (EVP_Digest(p, n, digest, NULL, sha256, NULL) != 1)
		abort();
	memcpy(ret->bytes, digest, HASH_BYTES);
}

static void state_begin(struct hash_state *s)
{
	if (s->xxh)
		XXH3_128bits_reset(s->xxh);
	else if (!s->evp)
		crypto_generichash_blake2b_init(blake2b_of(s), NULL, 0, BLAKE2B_BYTES);
	else if (EVP_DigestInit_ex(s->evp, sha256, NULL) != 1)
		abort();
}

int hash_state_new(struct hash_state **ret, enum hash_algorithm algorithm)
{
	struct hash_state *s = malloc(sizeof(*s));

	if (!s)
		return -ENOMEM;
	pthread_once(&prepared, prepare);
	*s = (struct hash_state){0};
	if (algorithm == HASH_XXH3)
		s->xxh = XXH3_createState();
	else if (algorithm == HASH_SHA256)
		s->evp = EVP_MD_CTX_new();
	if (!s->xxh && !s->evp && algorithm != HASH_BLAKE2B) {
		free(s);
		return -ENOMEM;
	}
	state_begin(s);
	*ret = s;
	return 0;
}

void hash_state_free(struct hash_state *s)
{
	if (!s)
		return;
	EVP_MD_CTX_free(s->evp);
	XXH3_freeState(s->xxh);
	free(s);
}

void hash_state_update(struct hash_state *s, const void *p, size_t n)
{
	if (!n)
		return;
	if (s->xxh)
		XXH3_128bits_update(s->xxh, p, n);
	else if (!s->evp)
		crypto_generichash_blake2b_update(blake2b_of(s), p, n);
	else if (EVP_DigestUpdate(s->evp, p, n) != 1)
		abort();
}

void hash_state_finish(struct hash_state *s, struct hash *ret)
{
	uint8_t digest[EVP_MAX_MD_SIZE];

	if (s->xxh) {
		from_xxh(ret, XXH3_128bits_digest(s->xxh));
	} else {
		if (!s->evp)
			crypto_generichash_blake2b_final(blake2b_of(s), digest, BLAKE2B_BYTES);
		else if (EVP_DigestFinal_ex(s->evp, digest, NULL) != 1)
			abort();
		memcpy(ret->bytes, digest, HASH_BYTES);
	}
	state_begin(s);
}

bool hash_equal(const struct hash *a, const struct hash *b)
{
	return !memcmp(a->bytes, b->bytes, HASH_BYTES);
}

int hash_compare(const struct hash *a, const struct hash *b)
{
	return memcmp(a->bytes, b->bytes, HASH_BYTES);
}

bool hash_is_zero(const struct hash *a)
{
	static const struct hash zero;

	return hash_equal(a, &zero);
}

char *hash_hex(const struct hash *h, size_t n, char *ret)
{
	static const char digits[] = "0123456789abcdef";

	for (size_t i = 0; i < n; i++) {
		ret[2 * i] = digits[h->bytes[i] >> 4];
		ret[2 * i + 1] = digits[h->bytes[i] & 15];
	}
	ret[2 * n] = 0;
	return ret;
}

uint64_t hash_fast(const void *p, size_t n, uint64_t seed)
{
	return XXH3_64bits_withSeed(p, n, seed);
}
