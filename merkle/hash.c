/*
 * merkle/hash.c — see merkle/hash.h.
 *
 * libcrypto looks an algorithm up by name at a cost well above that of hashing a small file, so
 * that each is fetched once per process; what is fetched is immutable and shared by all threads.
 * BLAKE2b is ours where the processor is one that merkle/blake2b.h knows.
 */
#include "merkle/hash.h"

#include <errno.h>
#include <openssl/evp.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#define XXH_INLINE_ALL /* most that is hashed is short: cheaper than the call */
#include <xxhash.h>

#include "merkle/blake2b.h"

#if defined(__x86_64__) || defined(__i386__)
#include <cpuid.h>
#elif defined(__aarch64__)
#include <asm/hwcap.h>
#include <sys/auxv.h>
#endif

static const char *const names[] = {
	[HASH_SHA256] = "sha256",
	[HASH_BLAKE2B] = "blake2b",
	[HASH_XXH3] = "xxh3",
};

struct hash_state {
	enum hash_algorithm algorithm;
	EVP_MD_CTX *evp;   /* SHA-256, BLAKE2b; else NULL: BLAKE2b is ours */
	struct blake2b blake2b;
	XXH3_state_t *xxh; /* XXH3 */
};

/* Set once, by fetch_all(). */
static const EVP_MD *sha256, *blake2b;
static pthread_once_t fetched = PTHREAD_ONCE_INIT;

static void fetch_all(void)
{
	sha256 = EVP_MD_fetch(NULL, "SHA2-256", NULL);
	blake2b = EVP_MD_fetch(NULL, "BLAKE2B-512", NULL);
}

static const EVP_MD *evp_md(enum hash_algorithm algorithm)
{
	const EVP_MD *md;

	pthread_once(&fetched, fetch_all);
	md = algorithm == HASH_SHA256 ? sha256 : algorithm == HASH_BLAKE2B ? blake2b : NULL;
	if (!md)
		abort();
	return md;
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

static bool is_ours(enum hash_algorithm algorithm)
{
	return algorithm == HASH_BLAKE2B && blake2b_possible();
}

void hash_bytes(enum hash_algorithm algorithm, const void *p, size_t n, struct hash *ret)
{
	uint8_t digest[EVP_MAX_MD_SIZE];

	if (algorithm == HASH_XXH3) {
		from_xxh(ret, XXH3_128bits(p, n));
		return;
	}
	if (is_ours(algorithm)) {
		struct blake2b b;

		blake2b_init(&b);
		blake2b_update(&b, p, n);
		blake2b_finish(&b, digest);
	} else if (EVP_Digest(p, n, digest, NULL, evp_md(algorithm), NULL) != 1) {
		abort();
	}
	memcpy(ret->bytes, digest, HASH_BYTES);
}

static void state_begin(struct hash_state *s)
{
	if (s->xxh)
		XXH3_128bits_reset(s->xxh);
	else if (!s->evp)
		blake2b_init(&s->blake2b);
	else if (EVP_DigestInit_ex(s->evp, evp_md(s->algorithm), NULL) != 1)
		abort();
}

int hash_state_new(struct hash_state **ret, enum hash_algorithm algorithm)
{
	struct hash_state *s = calloc(1, sizeof(*s));

	if (!s)
		return -ENOMEM;
	s->algorithm = algorithm;
	if (algorithm == HASH_XXH3)
		s->xxh = XXH3_createState();
	else if (!is_ours(algorithm))
		s->evp = EVP_MD_CTX_new();
	if (!s->xxh && !s->evp && !is_ours(algorithm)) {
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
		blake2b_update(&s->blake2b, p, n);
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
			blake2b_finish(&s->blake2b, digest);
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
