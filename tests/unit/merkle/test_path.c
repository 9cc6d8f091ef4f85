/* tests/unit/merkle/test_path.c — names that are allowed, and their order. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "merkle/hash.h"
#include "merkle/path.h"

static int compare(const char *a, const char *b)
{
	struct path_key ka, kb;

	path_key(&ka, a);
	path_key(&kb, b);
	return path_key_compare(&ka, &kb);
}

static void test_validity(void **state)
{
	static const char *const good[] = {
		"a",
		"a/b",
		"...",
		"..a",
		".syncignore",
		".syncd2",
		".sync",
		"syncd",
		"a/syncd/b",
		" ",
		"\xff\xfe",
		"a\nb",
		".syncd\xff",
		"syncd~",
		"syncd~x",
		"syncd~12x",
		"\xe2\x80\x8b",
		".sync\xc3\xa9",
		"x.syncd",
		".syncd.x",
		"\xc5\xbfyncd",
	};
	static const char *const bad[] = {
		"",
		"/",
		"/a",
		"a/",
		"a//b",
		".",
		"..",
		"a/..",
		"../a",
		"a/./b",
		".syncd",
		"a/.syncd",
		".syncd/b",
		".SYNCD",
		".SyNcD",
		"a/.Syncd/b",
		".\xc5\xbfyncd",
		(".syn\xe2\x80\x8d"
		 "cd"),
		"\xef\xbb\xbf.syncd",
		".syncd\xe2\x80\x8b",
		".syncd.",
		".syncd ",
		".syncd. .",
		"SYNCD~1",
		"a/syncd~1/b",
		".syncd\xe2\x80\x8b.",
	};

	(void)state;
	for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++)
		assert_true(path_valid(good[i]));
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		assert_false(path_valid(bad[i]));
}

static void test_component(void **state)
{
	char name[300];

	(void)state;
	memset(name, 'x', sizeof(name));
	assert_true(path_component_valid(name, 255));
	assert_false(path_component_valid(name, 256));
	assert_false(path_component_valid(name, 0));
	name[3] = 0;
	assert_false(path_component_valid(name, 10));
	name[3] = '/';
	assert_false(path_component_valid(name, 10));
}

static void test_limits(void **state)
{
	static char path[8192];

	(void)state;
	for (size_t i = 0; i < 2 * 256; i++)
		path[i] = i % 2 ? '/' : 'a';
	path[511] = 0; /* 256 components */
	assert_int_equal(path_depth(path), 256);
	assert_true(path_valid(path));
	strcat(path, "/a");
	assert_false(path_valid(path));

	for (size_t i = 0; i < sizeof(path); i++)
		path[i] = i % 200 == 199 ? '/' : 'b';
	path[4095] = 0;
	assert_true(path_valid(path));
	path[4095] = 'b';
	path[4096] = 0;
	assert_false(path_valid(path));
}

static void test_order(void **state)
{
	/* ascending: a directory, all below it, then its siblings, '/' before every other byte */
	static const char *const sorted[] = {
		"",
		"a",
		"a/\x01",
		"a/b",
		"a/b/c",
		"a/c",
		"a\x01",
		"a b",
		"a!",
		"a.txt",
		"aa",
		"b",
		"\xff",
	};

	(void)state;
	for (size_t i = 0; i < sizeof(sorted) / sizeof(sorted[0]); i++)
		for (size_t j = 0; j < sizeof(sorted) / sizeof(sorted[0]); j++) {
			int r = compare(sorted[i], sorted[j]);

			assert_true(i < j ? r < 0 : i > j ? r > 0 : r == 0);
		}
}

static void test_long_keys(void **state)
{
	static char path[600], other[600];
	struct path_key key;
	struct hash hash;

	(void)state;
	for (size_t i = 0; i < sizeof(path); i++)
		path[i] = i % 100 == 99 ? '/' : 'c';
	path[PATH_KEY_PLAIN_MAX] = 0;
	path_key(&key, path);
	assert_int_equal(key.len, PATH_KEY_PLAIN_MAX);
	assert_int_equal(key.bytes[99], 0);

	path[PATH_KEY_PLAIN_MAX] = 'c';
	path[PATH_KEY_PLAIN_MAX + 1] = 0;
	path_key(&key, path);
	assert_int_equal(key.len, PATH_KEY_BYTES_MAX);
	assert_int_equal(key.bytes[99], 0);
	assert_int_equal(key.bytes[PATH_KEY_PREFIX - 1], 'c');
	assert_int_equal(key.bytes[PATH_KEY_PREFIX], 0xff);
	hash_bytes(HASH_SHA256, path, strlen(path), &hash);
	assert_memory_equal(key.bytes + PATH_KEY_PREFIX + 1, hash.bytes, HASH_BYTES);

	memcpy(other, path, sizeof(path));
	other[470] = 'd'; /* beyond the prefix: only the hash tells */
	assert_true(compare(path, other) != 0);
	assert_int_equal(compare(path, path), 0);
}

static void test_parts(void **state)
{
	char *joined;

	(void)state;
	assert_true(path_is_below("a/b", "a"));
	assert_true(path_is_below("a/b/c", "a"));
	assert_true(path_is_below("a", ""));
	assert_false(path_is_below("", ""));
	assert_false(path_is_below("a", "a"));
	assert_false(path_is_below("ab", "a"));
	assert_false(path_is_below("a", "a/b"));
	assert_int_equal(path_parent_length("a"), 0);
	assert_int_equal(path_parent_length("a/b"), 1);
	assert_int_equal(path_parent_length("a/bc/d"), 4);
	assert_true(path_same_parent("a", "b"));
	assert_true(path_same_parent("a/b", "a/bc"));
	assert_false(path_same_parent("a/b", "b/b"));
	assert_false(path_same_parent("a/b", "a"));
	assert_string_equal(path_name("a"), "a");
	assert_string_equal(path_name("a/bc"), "bc");
	assert_int_equal(path_depth(""), 0);
	assert_int_equal(path_depth("a"), 1);
	assert_int_equal(path_depth("a/b/c"), 3);
	joined = path_join("", "x");
	assert_string_equal(joined, "x");
	free(joined);
	joined = path_join("a/b", "x");
	assert_string_equal(joined, "a/b/x");
	free(joined);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_validity),
		cmocka_unit_test(test_component),
		cmocka_unit_test(test_limits),
		cmocka_unit_test(test_order),
		cmocka_unit_test(test_long_keys),
		cmocka_unit_test(test_parts),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
