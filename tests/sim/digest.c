/*
 * tests/sim/digest.c — libcrypto's EVP_Digest, with a memory: the same few contents are hashed again and again, by each replica that
 * has them, in each history. What was asked before is known by its length and its XXH3-128, which nobody here makes collide.
 */
#include <openssl/evp.h>
#include <string.h>
#include <xxhash.h>

#include "tests/sim/fs_internal.h"

#define SLOTS 4096

static struct digest {
	XXH128_hash_t name;
	const EVP_MD *type; /* NULL: none */
	size_t n;
	unsigned bytes_n;
	unsigned char bytes[EVP_MAX_MD_SIZE];
} digests[SLOTS];

static void compute(struct digest *d, const void *p)
{
	static EVP_MD_CTX *context;

	if (!context)
		context = EVP_MD_CTX_new();
	if (!context || EVP_DigestInit_ex(context, d->type, NULL) != 1 || EVP_DigestUpdate(context, p, d->n) != 1 ||
			EVP_DigestFinal_ex(context, d->bytes, &d->bytes_n) != 1)
		sim_fatal("no digest");
}

int EVP_Digest(const void *p, size_t n, unsigned char *ret, unsigned *ret_n, const EVP_MD *type, ENGINE *engine)
{
	XXH128_hash_t name = XXH3_128bits(p, n);
	struct digest *d = &digests[name.low64 % SLOTS];

	(void)engine;
	if (d->type != type || d->n != n || !XXH128_isEqual(d->name, name)) {
		*d = (struct digest){.name = name, .type = type, .n = n};
		compute(d, p);
	}
	memcpy(ret, d->bytes, d->bytes_n);
	if (ret_n)
		*ret_n = d->bytes_n;
	return 1;
}
