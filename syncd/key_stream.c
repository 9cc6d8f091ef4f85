/*
 * syncd/key_stream.c — see syncd/key_stream.h.
 *
 * A context holds one of libcrypto's for the same cipher, which encrypts zeros: that is the key stream. It runs ahead of what was
 * used of it by up to STREAM_BYTES. Therefore a context that goes on at "the present counter", or is copied, is none: each keying
 * must bring an IV, else the context refuses to work. Directions are the same in counter mode.
 *
 * EVP_Cipher spends more on each block of 16 bytes than we do. So who calls it calls ours, which finds the context behind libcrypto's in that
 * one's application data, where it noted it; whatever is not ours goes on to libcrypto's function. libcrypto's context keeps ours for as
 * long as it keeps that note: both are dropped when it is reset, freed, or given another cipher.
 */
#include "syncd/key_stream.h"

#include <dlfcn.h>
#include <errno.h>
#include <openssl/core_dispatch.h>
#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/params.h>
#include <openssl/provider.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#define PROVIDER "syncd"
#define PREFER_OURS "?provider=" PROVIDER
#define NOT_OURS "provider!=" PROVIDER
#define IV_BYTES 16
#define BLOCK_BYTES 16
#define PARAM_OURS "syncd-key-stream" /* of a context: it */
#define STREAM_BYTES 4096 /* made at a time; stays in the nearest cache */

typedef int cipher_function(EVP_CIPHER_CTX *c, unsigned char *out, const unsigned char *in, unsigned int n);

/* libcrypto's EVP_Cipher. Set once, by key_stream_install; before that, ours finds it by itself. */
static cipher_function *cipher_next;

struct context {
	EVP_CIPHER *cipher;	   /* libcrypto's own */
	EVP_CIPHER_CTX *encrypter; /* of zeros */
	size_t key_bytes;
	bool has_key;
	bool keyed; /* and has an IV: all of the key stream since then was or is in `stream` */
	size_t at;  /* bytes of `stream` that were used */
	uint8_t stream[STREAM_BYTES];
};

static void context_free(void *context)
{
	struct context *c = context;

	if (!c)
		return;
	EVP_CIPHER_CTX_free(c->encrypter);
	EVP_CIPHER_free(c->cipher);
	OPENSSL_clear_free(c, sizeof(*c));
}

static void *context_new(const char *name, size_t key_bytes)
{
	struct context *c = OPENSSL_zalloc(sizeof(*c));

	if (!c)
		return NULL;
	c->key_bytes = key_bytes;
	c->cipher = EVP_CIPHER_fetch(NULL, name, NOT_OURS);
	c->encrypter = EVP_CIPHER_CTX_new();
	if (!c->cipher || !c->encrypter) {
		context_free(c);
		return NULL;
	}
	return c;
}

static void *context_new_128(void *provider)
{
	(void)provider;
	return context_new("AES-128-CTR", 16);
}

static void *context_new_256(void *provider)
{
	(void)provider;
	return context_new("AES-256-CTR", 32);
}

/* The key may have come before. */
static int context_init(void *context, const unsigned char *key, size_t n_key, const unsigned char *iv, size_t n_iv, const OSSL_PARAM params[])
{
	struct context *c = context;

	(void)params;
	c->keyed = false;
	c->at = STREAM_BYTES;
	if ((key && n_key != c->key_bytes) || (iv && n_iv != IV_BYTES))
		return 0;
	if (EVP_EncryptInit_ex2(c->encrypter, EVP_CIPHER_CTX_get0_cipher(c->encrypter) ? NULL : c->cipher, key, iv, NULL) != 1)
		return 0;
	c->has_key |= key != NULL;
	c->keyed = c->has_key && iv;
	return 1;
}

static bool fill(struct context *c)
{
	static const uint8_t zeros[STREAM_BYTES];
	int n = 0;

	if (EVP_EncryptUpdate(c->encrypter, c->stream, &n, zeros, STREAM_BYTES) != 1 || n != STREAM_BYTES) {
		c->keyed = false;
		return false;
	}
	c->at = 0;
	return true;
}

/* out may be in. */
static inline void combine(uint8_t *out, const uint8_t *in, const uint8_t *stream, size_t n)
{
	uint64_t a, b;

	for (; n >= sizeof(a); n -= sizeof(a), in += sizeof(a), out += sizeof(a), stream += sizeof(a)) {
		memcpy(&a, in, sizeof(a));
		memcpy(&b, stream, sizeof(b));
		a ^= b;
		memcpy(out, &a, sizeof(a));
	}
	for (size_t i = 0; i < n; i++)
		out[i] = in[i] ^ stream[i];
}

/* A block, if that is what it is, and all of it is in the stream: nearly always. */
static inline bool combine_block(struct context *c, uint8_t *out, const uint8_t *in, size_t n)
{
	if (n != BLOCK_BYTES || !c->keyed || c->at > STREAM_BYTES - BLOCK_BYTES)
		return false;
	combine(out, in, c->stream + c->at, BLOCK_BYTES);
	c->at += BLOCK_BYTES;
	return true;
}

static int context_update(void *context, unsigned char *out, size_t *ret_n, size_t cap, const unsigned char *in, size_t n)
{
	struct context *c = context;

	if (!c->keyed || cap < n)
		return 0;
	*ret_n = n;
	if (combine_block(c, out, in, n))
		return 1;
	for (size_t done = 0, part; done < n; done += part, c->at += part) {
		if (c->at == STREAM_BYTES && !fill(c))
			return 0;
		part = n - done < STREAM_BYTES - c->at ? n - done : STREAM_BYTES - c->at;
		combine(out + done, in + done, c->stream + c->at, part);
	}
	return 1;
}

static int context_final(void *context, unsigned char *out, size_t *ret_n, size_t cap)
{
	(void)context;
	(void)out;
	(void)cap;
	*ret_n = 0;
	return 1;
}

static int set_size(OSSL_PARAM params[], const char *name, size_t value)
{
	OSSL_PARAM *p = OSSL_PARAM_locate(params, name);

	return !p || OSSL_PARAM_set_size_t(p, value);
}

static int cipher_params(OSSL_PARAM params[], size_t key_bytes)
{
	OSSL_PARAM *mode = OSSL_PARAM_locate(params, OSSL_CIPHER_PARAM_MODE);

	return (!mode || OSSL_PARAM_set_uint(mode, EVP_CIPH_CTR_MODE)) && set_size(params, OSSL_CIPHER_PARAM_KEYLEN, key_bytes) &&
	       set_size(params, OSSL_CIPHER_PARAM_IVLEN, IV_BYTES) && set_size(params, OSSL_CIPHER_PARAM_BLOCK_SIZE, 1);
}

static int cipher_params_128(OSSL_PARAM params[])
{
	return cipher_params(params, 16);
}

static int cipher_params_256(OSSL_PARAM params[])
{
	return cipher_params(params, 32);
}

static int context_params(void *context, OSSL_PARAM params[])
{
	const struct context *c = context;
	OSSL_PARAM *ours = OSSL_PARAM_locate(params, PARAM_OURS);

	return set_size(params, OSSL_CIPHER_PARAM_KEYLEN, c->key_bytes) && set_size(params, OSSL_CIPHER_PARAM_IVLEN, IV_BYTES) &&
	       (!ours || OSSL_PARAM_set_octet_ptr(ours, c, sizeof(*c)));
}

/* --- in the place of EVP_Cipher --- */

static cipher_function *find_next(void)
{
	return (cipher_function *)dlsym(RTLD_NEXT, "EVP_Cipher");
}

/* The context behind libcrypto's, noted there for the next time. NULL: it is none of ours. */
static struct context *behind(EVP_CIPHER_CTX *c)
{
	void *found = NULL;
	OSSL_PARAM params[] = {OSSL_PARAM_construct_octet_ptr(PARAM_OURS, &found, 0), OSSL_PARAM_END};
	const EVP_CIPHER *cipher = EVP_CIPHER_CTX_get0_cipher(c);
	const OSSL_PROVIDER *provider = cipher ? EVP_CIPHER_get0_provider(cipher) : NULL;

	if (!provider || strcmp(OSSL_PROVIDER_get0_name(provider), PROVIDER) || EVP_CIPHER_CTX_get_params(c, params) != 1)
		return NULL;
	EVP_CIPHER_CTX_set_app_data(c, found);
	return found;
}

int EVP_Cipher(EVP_CIPHER_CTX *c, unsigned char *out, const unsigned char *in, unsigned int n)
{
	struct context *ours = EVP_CIPHER_CTX_get_app_data(c);
	size_t done;

	if (!ours)
		ours = behind(c);
	if (!ours || !in)
		return (cipher_next ? cipher_next : find_next())(c, out, in, n);
	return combine_block(ours, out, in, n) || context_update(ours, out, &done, n, in, n) ? (int)n : -1;
}

/* --- what libcrypto asks a provider for --- */

#define FUNCTION(id, f) {id, (void (*)(void))(f)}
#define CIPHER(bits)                                                                                                           \
	static const OSSL_DISPATCH functions_##bits[] = {                                                                      \
		FUNCTION(OSSL_FUNC_CIPHER_NEWCTX, context_new_##bits), FUNCTION(OSSL_FUNC_CIPHER_FREECTX, context_free),       \
		FUNCTION(OSSL_FUNC_CIPHER_ENCRYPT_INIT, context_init), FUNCTION(OSSL_FUNC_CIPHER_DECRYPT_INIT, context_init),  \
		FUNCTION(OSSL_FUNC_CIPHER_UPDATE, context_update), FUNCTION(OSSL_FUNC_CIPHER_FINAL, context_final),            \
		FUNCTION(OSSL_FUNC_CIPHER_CIPHER, context_update), FUNCTION(OSSL_FUNC_CIPHER_GET_PARAMS, cipher_params_##bits), \
		FUNCTION(OSSL_FUNC_CIPHER_GET_CTX_PARAMS, context_params), {0, NULL},                                          \
	}

CIPHER(128);
CIPHER(256);

static const OSSL_ALGORITHM *query(void *provider, int operation, int *ret_no_cache)
{
	static const OSSL_ALGORITHM ciphers[] = {
		{"AES-128-CTR", "provider=" PROVIDER, functions_128, NULL},
		{"AES-256-CTR", "provider=" PROVIDER, functions_256, NULL},
		{NULL, NULL, NULL, NULL},
	};

	(void)provider;
	*ret_no_cache = 0;
	return operation == OSSL_OP_CIPHER ? ciphers : NULL;
}

static int provider_init(const OSSL_CORE_HANDLE *handle, const OSSL_DISPATCH *in, const OSSL_DISPATCH **ret_out, void **ret_provider)
{
	static const OSSL_DISPATCH functions[] = {FUNCTION(OSSL_FUNC_PROVIDER_QUERY_OPERATION, query), {0, NULL}};

	(void)in;
	*ret_out = functions;
	*ret_provider = (void *)handle; /* it must be something */
	return 1;
}

static bool has_others(const char *name)
{
	EVP_CIPHER *cipher = EVP_CIPHER_fetch(NULL, name, NOT_OURS);
	bool has = cipher != NULL;

	EVP_CIPHER_free(cipher);
	return has;
}

int key_stream_install(OSSL_PROVIDER **ret)
{
	OSSL_PROVIDER *provider;

	cipher_next = find_next();
	if (EVP_default_properties_is_fips_enabled(NULL) || !has_others("AES-128-CTR") || !has_others("AES-256-CTR"))
		return KEY_STREAM_NONE;
	/* with the fallback to the default provider kept, where none is configured */
	if (!OSSL_PROVIDER_add_builtin(NULL, PROVIDER, provider_init) || !(provider = OSSL_PROVIDER_try_load(NULL, PROVIDER, 1)))
		return -ENOTSUP;
	if (!EVP_set_default_properties(NULL, PREFER_OURS)) {
		OSSL_PROVIDER_unload(provider);
		return -ENOTSUP;
	}
	*ret = provider;
	return 0;
}
