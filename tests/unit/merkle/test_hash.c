/* tests/unit/merkle/test_hash.c — known answers, and streaming equals one-shot; two libraries agree on BLAKE2b. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>
#include <openssl/evp.h>

#include "merkle/hash.h"

static const enum hash_algorithm all[] = {HASH_SHA256, HASH_BLAKE2B, HASH_XXH3};

static void check(enum hash_algorithm algorithm, const char *text, const char *hex)
{
	char got[2 * HASH_BYTES + 1];
	struct hash h;

	hash_bytes(algorithm, text, strlen(text), &h);
	assert_string_equal(hash_hex(&h, HASH_BYTES, got), hex);
}

static void test_known_answers(void **state)
{
	(void)state;
	check(HASH_SHA256, "abc",
		"ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
	check(HASH_SHA256, "", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
	check(HASH_BLAKE2B, "abc",
		"ba80a53f981c4d0d6a2797b69f12f6e94c212f14685ac4b74b12bb6fdbffa2d1");
	check(HASH_XXH3, "", "99aa06d3014798d86001c324468d497f00000000000000000000000000000000");
	assert_int_equal(hash_fast("", 0, 0), UINT64_C(0x2d06800538d394c2));
	assert_true(hash_fast("x", 1, 1) != hash_fast("x", 1, 2));
}

static void test_streaming(void **state)
{
	uint8_t bytes[5000];

	(void)state;
	for (size_t i = 0; i < sizeof(bytes); i++)
		bytes[i] = (uint8_t)(i * 7 + i / 256);
	for (size_t a = 0; a < sizeof(all) / sizeof(all[0]); a++) {
		struct hash_state *s;
		struct hash once, twice;

		assert_int_equal(hash_state_new(&s, all[a]), 0);
		for (int round = 0; round < 2; round++) { /* finish starts anew */
			size_t at = 0;

			for (size_t step = 1; at < sizeof(bytes); step = step * 3 % 701) {
				size_t n = step < sizeof(bytes) - at ? step : sizeof(bytes) - at;

				hash_state_update(s, bytes + at, n);
				hash_state_update(s, NULL, 0);
				at += n;
			}
			hash_state_finish(s, &twice);
			hash_bytes(all[a], bytes, sizeof(bytes), &once);
			assert_true(hash_equal(&once, &twice));
		}
		hash_state_finish(s, &twice); /* of nothing */
		hash_bytes(all[a], NULL, 0, &once);
		assert_true(hash_equal(&once, &twice));
		hash_state_free(s);
	}
	hash_state_free(NULL);
}

/* libsodium's with the vectors of this processor, and libcrypto's: at the bounds of blocks, in one piece, and in pieces. */
static void test_blake2b_is_libcryptos(void **state)
{
	uint8_t bytes[1200], digest[EVP_MAX_MD_SIZE];
	struct hash_state *s;
	struct hash got;

	(void)state;
	for (size_t i = 0; i < sizeof(bytes); i++)
		bytes[i] = (uint8_t)(i * 131 + i / 7);
	assert_int_equal(hash_state_new(&s, HASH_BLAKE2B), 0);
	for (size_t n = 0; n <= sizeof(bytes); n++) {
		assert_int_equal(EVP_Digest(bytes, n, digest, NULL, EVP_blake2b512(), NULL), 1);
		hash_bytes(HASH_BLAKE2B, bytes, n, &got);
		assert_memory_equal(got.bytes, digest, HASH_BYTES);
		for (size_t first = n % 131; first <= n; first += 127) {
			hash_state_update(s, bytes, first);
			hash_state_update(s, bytes + first, n - first);
			hash_state_finish(s, &got);
			assert_memory_equal(got.bytes, digest, HASH_BYTES);
		}
	}
	hash_state_free(s);
}

static void test_names(void **state)
{
	enum hash_algorithm got = HASH_SHA256;

	(void)state;
	for (size_t a = 0; a < sizeof(all) / sizeof(all[0]); a++) {
		assert_int_equal(hash_algorithm_parse(hash_algorithm_name(all[a]), &got), 0);
		assert_int_equal(got, all[a]);
		assert_true(hash_algorithm_known((uint8_t)all[a]));
	}
	assert_int_equal(hash_algorithm_parse("md5", &got), -EINVAL);
	assert_int_equal(hash_algorithm_parse("", &got), -EINVAL);
	assert_int_equal(hash_algorithm_parse("SHA256", &got), -EINVAL);
	assert_int_equal(got, HASH_XXH3);
	assert_false(hash_algorithm_known(0));
	assert_false(hash_algorithm_known(4));
	assert_string_equal(hash_algorithm_name((enum hash_algorithm)9), "unknown");
}

/* As the kernel lists the processor's abilities. */
static void test_usual(void **state)
{
	FILE *f = fopen("/proc/cpuinfo", "r");
	char word[64] = "";
	bool sha = false;

	(void)state;
	assert_non_null(f);
	while (!sha && fscanf(f, "%63s", word) == 1)
		sha = strcmp(word, "sha_ni") == 0 || strcmp(word, "sha2") == 0;
	fclose(f);
	assert_int_equal(hash_algorithm_usual(), sha ? HASH_SHA256 : HASH_BLAKE2B);
}

static void test_values(void **state)
{
	struct hash a = {{0}}, b = {{0}};
	char hex[9];

	(void)state;
	assert_true(hash_is_zero(&a));
	b.bytes[HASH_BYTES - 1] = 1;
	assert_false(hash_is_zero(&b));
	assert_false(hash_equal(&a, &b));
	assert_true(hash_compare(&a, &b) < 0);
	assert_true(hash_compare(&b, &a) > 0);
	assert_int_equal(hash_compare(&a, &a), 0);
	b.bytes[0] = 0xa5;
	assert_string_equal(hash_hex(&b, 4, hex), "a5000000");
	assert_string_equal(hash_hex(&b, 0, hex), "");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_known_answers),
		cmocka_unit_test(test_streaming),
		cmocka_unit_test(test_blake2b_is_libcryptos),
		cmocka_unit_test(test_names),
		cmocka_unit_test(test_usual),
		cmocka_unit_test(test_values),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
