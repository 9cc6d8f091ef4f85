/* AES in counter mode in pieces of any size is what libcrypto's own gives, through every way that keys contexts. */
#include "syncd/key_stream.h"

#include <openssl/evp.h>
#include <openssl/provider.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/error.h"
#include "tests/random.h"

#define BYTES 300000

struct key {
	uint8_t key[32], iv[16];
};

static struct key draw_key(uint64_t *seed)
{
	struct key k;

	for (size_t i = 0; i < sizeof(k); i++)
		((uint8_t *)&k)[i] = (uint8_t)test_random(seed);
	memset(k.iv + 8, 0xff, 7); /* the counter is carried on soon */
	return k;
}

static const EVP_CIPHER *ours(int bits)
{
	return bits == 128 ? EVP_aes_128_ctr() : EVP_aes_256_ctr(); /* as libssh2 says it */
}

static uint8_t *by_libcrypto(int bits, const struct key *k, const uint8_t *in)
{
	EVP_CIPHER *cipher = EVP_CIPHER_fetch(NULL, bits == 128 ? "AES-128-CTR" : "AES-256-CTR", "provider=default");
	EVP_CIPHER_CTX *c = EVP_CIPHER_CTX_new();
	uint8_t *out = malloc(BYTES);
	int n;

	assert_non_null(cipher);
	assert_int_equal(EVP_EncryptInit_ex2(c, cipher, k->key, k->iv, NULL), 1);
	assert_int_equal(EVP_EncryptUpdate(c, out, &n, in, BYTES), 1);
	EVP_CIPHER_CTX_free(c);
	EVP_CIPHER_free(cipher);
	return out;
}

static void assert_is_ours(const EVP_CIPHER_CTX *c)
{
	assert_string_equal(OSSL_PROVIDER_get0_name(EVP_CIPHER_get0_provider(EVP_CIPHER_CTX_get0_cipher(c))), "syncd");
}

/* All of it, in pieces of up to `most` bytes, in place, by either function. */
static void encrypt(EVP_CIPHER_CTX *c, uint64_t *seed, size_t most, const uint8_t *in, uint8_t *out, size_t bytes)
{
	memcpy(out, in, bytes);
	for (size_t at = 0, n; at < bytes; at += n) {
		int done = 0;

		n = most == 16 ? 16 : 1 + test_random(seed) % most;
		n = n < bytes - at ? n : bytes - at;
		if (test_random(seed) % 2)
			assert_int_equal(EVP_Cipher(c, out + at, out + at, (unsigned)n), n);
		else
			assert_int_equal(EVP_CipherUpdate(c, out + at, &done, out + at, (int)n), 1);
	}
}

static void test_pieces(void **state)
{
	static const size_t most[] = {1, 16, 17, 4096, 10000, BYTES};
	uint64_t seed = 1;
	uint8_t *in = malloc(BYTES), *out = malloc(BYTES);

	(void)state;
	for (size_t i = 0; i < BYTES; i++)
		in[i] = (uint8_t)test_random(&seed);
	for (size_t i = 0; i < 2 * ARRAY_SIZE(most); i++) {
		const int bits = i % 2 ? 128 : 256;
		struct key k = draw_key(&seed);
		uint8_t *want = by_libcrypto(bits, &k, in);
		EVP_CIPHER_CTX *c = EVP_CIPHER_CTX_new();

		assert_int_equal(EVP_CipherInit(c, ours(bits), k.key, k.iv, (int)(i % 3 % 2)), 1);
		assert_is_ours(c);
		assert_int_equal(EVP_CIPHER_CTX_get_key_length(c), bits / 8);
		assert_int_equal(EVP_CIPHER_CTX_get_iv_length(c), 16);
		assert_int_equal(EVP_CIPHER_CTX_get_mode(c), EVP_CIPH_CTR_MODE);
		encrypt(c, &seed, most[i / 2], in, out, BYTES);
		assert_memory_equal(out, want, BYTES);
		EVP_CIPHER_CTX_free(c);
		free(want);
	}
	free(in);
	free(out);
}

/* Contexts of both directions side by side, each keyed anew at any moment: in place, or freed and made again. */
static void test_keyed_anew(void **state)
{
	uint64_t seed = 2;
	uint8_t *in = calloc(1, BYTES), *out = malloc(BYTES);
	EVP_CIPHER_CTX *c[2] = {EVP_CIPHER_CTX_new(), EVP_CIPHER_CTX_new()};
	struct key k[2];
	uint8_t *want[2] = {NULL, NULL};
	size_t at[2] = {BYTES, BYTES};

	(void)state;
	for (int i = 0; i < 3000; i++) {
		const int s = (int)(test_random(&seed) % 2);
		size_t n = 1 + test_random(&seed) % 6000;

		if (!want[s] || n > BYTES - at[s] || test_random(&seed) % 20 == 0) {
			const int how = want[s] ? (int)(test_random(&seed) % 4) : 0;

			k[s] = draw_key(&seed);
			if (how == 1) {
				EVP_CIPHER_CTX_free(c[s]);
				c[s] = EVP_CIPHER_CTX_new();
			}
			if (how == 2)
				EVP_CIPHER_CTX_reset(c[s]);
			if (how == 3) { /* the key first, then the IV */
				assert_int_equal(EVP_CipherInit_ex(c[s], NULL, NULL, k[s].key, NULL, 1), 1);
				assert_int_equal(EVP_CipherInit_ex(c[s], NULL, NULL, NULL, k[s].iv, 1), 1);
			} else {
				assert_int_equal(EVP_CipherInit(c[s], ours(256), k[s].key, k[s].iv, s), 1);
			}
			assert_is_ours(c[s]);
			free(want[s]);
			want[s] = by_libcrypto(256, &k[s], in);
			at[s] = 0;
		}
		encrypt(c[s], &seed, n, in + at[s], out, n);
		assert_memory_equal(out, want[s] + at[s], n);
		at[s] += n;
	}
	for (int s = 0; s < 2; s++) {
		EVP_CIPHER_CTX_free(c[s]);
		free(want[s]);
	}
	free(in);
	free(out);
}

/* What would need the counter where the caller is, and not where the stream is, is refused: never another stream, or the same twice. */
static void test_refused(void **state)
{
	uint64_t seed = 3;
	struct key k = draw_key(&seed);
	EVP_CIPHER_CTX *c = EVP_CIPHER_CTX_new(), *copy = EVP_CIPHER_CTX_new();
	uint8_t bytes[48] = {0};

	(void)state;
	assert_int_equal(EVP_CipherInit(c, ours(256), NULL, NULL, 1), 1);
	assert_int_equal(EVP_Cipher(c, bytes, bytes, 16), -1);
	assert_int_equal(EVP_CipherInit_ex(c, NULL, NULL, k.key, NULL, 1), 1);
	assert_int_equal(EVP_Cipher(c, bytes, bytes, 16), -1);
	assert_int_equal(EVP_CipherInit_ex(c, NULL, NULL, NULL, k.iv, 1), 1);
	assert_int_equal(EVP_Cipher(c, bytes, bytes, 16), 16);
	assert_int_not_equal(EVP_CIPHER_CTX_copy(copy, c), 1);
	assert_int_equal(EVP_CipherInit_ex(c, NULL, NULL, k.key, NULL, 1), 1);
	assert_int_equal(EVP_Cipher(c, bytes, bytes, 16), -1);
	EVP_CIPHER_CTX_free(c);
	EVP_CIPHER_CTX_free(copy);
}

/* Other algorithms are libcrypto's, as ever. */
static void test_others(void **state)
{
	static const char *const ciphers[] = {"AES-256-CBC", "AES-192-CTR", "AES-256-GCM"};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(ciphers); i++) {
		EVP_CIPHER *cipher = EVP_CIPHER_fetch(NULL, ciphers[i], NULL);

		assert_non_null(cipher);
		assert_string_equal(OSSL_PROVIDER_get0_name(EVP_CIPHER_get0_provider(cipher)), "default");
		EVP_CIPHER_free(cipher);
	}
	EVP_MD *digest = EVP_MD_fetch(NULL, "SHA512", NULL);

	assert_non_null(digest);
	EVP_MD_free(digest);
}

static int install(void **state)
{
	OSSL_PROVIDER *provider;
	int r = key_stream_install(&provider);

	*state = provider;
	return r;
}

static int unload(void **state)
{
	return !OSSL_PROVIDER_unload(*state);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_pieces), cmocka_unit_test(test_keyed_anew), cmocka_unit_test(test_refused), cmocka_unit_test(test_others),
	};

	return cmocka_run_group_tests(tests, install, unload);
}
