/* tests/unit/tombstones/test_conflict.c — names of conflict copies. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/error.h"
#include "merkle/path.h"
#include "tombstones/conflict.h"

static const struct hash first = {{0x9f, 0x86, 0xd0, 0x81, 0x88, 0x4c, 0x7d}};
static const struct hash second = {{0x01, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd}};

static void check_copy(const char *path, const struct hash *h, unsigned n, const char *expected)
{
	cleanup_free char *made = conflict_path(path, h, n);

	assert_non_null(made);
	assert_string_equal(made, expected);
	assert_true(conflict_is_copy(made));
}

static void test_names(void **state)
{
	(void)state;
	check_copy("report.txt", &first, 1, "report.sync-conflict-9f86d081884c.txt");
	check_copy("report.txt", &first, 2, "report.sync-conflict-9f86d081884c-2.txt");
	check_copy("a.b/c/report.tar.gz", &second, 1,
		"a.b/c/report.tar.sync-conflict-0123456789ab.gz");
	check_copy("a.b/Makefile", &first, 1, "a.b/Makefile.sync-conflict-9f86d081884c");
	check_copy(".bashrc", &first, 1, ".bashrc.sync-conflict-9f86d081884c");
	check_copy(".config.ini", &first, 1, ".config.sync-conflict-9f86d081884c.ini");
	check_copy("end.", &first, 1, "end.sync-conflict-9f86d081884c.");
	check_copy("...", &first, 1, "...sync-conflict-9f86d081884c.");
}

static void test_copies_do_not_nest(void **state)
{
	(void)state;
	check_copy("d/report.sync-conflict-9f86d081884c.txt", &second, 1,
		"d/report.sync-conflict-0123456789ab.txt");
	check_copy("report.sync-conflict-9f86d081884c-2.txt", &second, 3,
		"report.sync-conflict-0123456789ab-3.txt");
	check_copy("Makefile.sync-conflict-9f86d081884c-12", &second, 1,
		"Makefile.sync-conflict-0123456789ab");
}

/* What is put aside would otherwise be overwritten by what it was put aside for. */
static void test_never_itself(void **state)
{
	(void)state;
	check_copy("r.sync-conflict-9f86d081884c.txt", &first, 1,
		"r.sync-conflict-9f86d081884c-2.txt");
	check_copy("r.sync-conflict-9f86d081884c.txt", &first, 2,
		"r.sync-conflict-9f86d081884c-3.txt");
	check_copy("r.sync-conflict-9f86d081884c-3.txt", &first, 1,
		"r.sync-conflict-9f86d081884c.txt");
	check_copy("r.sync-conflict-9f86d081884c-3.txt", &first, 2,
		"r.sync-conflict-9f86d081884c-2.txt");
	check_copy("r.sync-conflict-9f86d081884c-3.txt", &first, 3,
		"r.sync-conflict-9f86d081884c-4.txt");
	check_copy("r.sync-conflict-9f86d081884c-99999999999999999999.txt", &first, 3,
		"r.sync-conflict-9f86d081884c-3.txt");
	check_copy("r.sync-conflict-9f86d081884c-3.txt", &second, 3,
		"r.sync-conflict-0123456789ab-3.txt");
}

static void check_original(const char *copy, const char *expected)
{
	cleanup_free char *original = conflict_original(copy);

	assert_int_equal(conflict_is_copy(copy), expected != NULL);
	if (expected)
		assert_string_equal(original, expected);
	else
		assert_null(original);
}

static void test_originals(void **state)
{
	(void)state;
	check_original("d/report.sync-conflict-9f86d081884c.txt", "d/report.txt");
	check_original("d/report.sync-conflict-9f86d081884c-17.txt", "d/report.txt");
	check_original("Makefile.sync-conflict-9f86d081884c", "Makefile");
	check_original("a.sync-conflict-9f86d081884c.sync-conflict-0123456789ab.c",
		"a.sync-conflict-9f86d081884c.c");
	check_original("report.txt", NULL);
	check_original("d.sync-conflict-9f86d081884c/report.txt",
		NULL); /* the directory's name is not the copy's */
	check_original("report.sync-conflict-9f86d081884.txt", NULL);	  /* 11 digits */
	check_original("report.sync-conflict-9F86D081884C.txt", NULL);	  /* upper case */
	check_original("report.sync-conflict-9f86d081884c5.txt", NULL);	  /* 13 */
	check_original("report.sync-conflict-9f86d081884c-02.txt", NULL); /* not a number of ours */
	check_original("report.sync-conflict-9f86d081884c-.txt", NULL);
	check_original("report.sync-conflict-9f86d081884c.tar.gz",
		NULL);					     /* we would have put it before .gz */
	check_original(".sync-conflict-9f86d081884c", NULL); /* a copy of nothing */
	check_original("", NULL);
}

static void check_cut(const char *stem, const char *extension)
{
	cleanup_free char *path = NULL, *made = NULL, *back = NULL;
	size_t left;

	assert_true(asprintf(&path, "dir/%s%s", stem, extension) > 0);
	made = conflict_path(path, &first, 4000000000u);
	assert_non_null(made);
	assert_true(strlen(path_name(made)) <= FILE_NAME_BYTES_MAX);
	assert_true(strlen(path_name(made)) >
		    FILE_NAME_BYTES_MAX - 4); /* no more is cut than must be */
	assert_true(path_valid(made));
	back = conflict_original(made);
	assert_non_null(back);
	left = strlen(back) - 4 - strlen(extension);
	assert_memory_equal(back, path, 4 + left);
	assert_string_equal(back + 4 + left, extension);
	/* what follows the cut in the stem begins a character */
	assert_true((stem[left] & 0xc0) != 0x80 || (unsigned char)stem[0] == 0x80);
}

static void test_long_names_are_cut(void **state)
{
	char stem[FILE_NAME_BYTES_MAX + 1];

	(void)state;
	for (size_t shift = 0; shift < 4; shift++) {
		static const char *const letters[] = {"x", "ä", "€", "😀", "\x80"};

		for (size_t i = 0; i < ARRAY_SIZE(letters); i++) {
			size_t n = strlen(letters[i]);

			memset(stem, 0, sizeof(stem));
			memset(stem, letters[i][0] & 0x80 && n == 1 ? '\x80' : 'y', shift);
			for (size_t at = shift; at + n <= 251; at += n)
				memcpy(stem + at, letters[i], n);
			check_cut(stem, "");
			check_cut(stem, ".odt");
		}
	}
}

static void test_long_extension_is_stem(void **state)
{
	char name[FILE_NAME_BYTES_MAX + 1] = "a.";
	cleanup_free char *made = NULL;

	(void)state;
	memset(name + 2, 'e', 253);
	made = conflict_path(name, &first, 1);
	assert_non_null(made);
	assert_int_equal(strlen(made), FILE_NAME_BYTES_MAX);
	assert_true(conflict_is_copy(made));
	assert_memory_equal(made, name, 200);
}

static void test_long_path(void **state)
{
	char path[FILE_PATH_BYTES_MAX + 1];
	cleanup_free char *made = NULL;

	(void)state;
	for (size_t i = 0; i < FILE_PATH_BYTES_MAX; i++)
		path[i] = i % 100 == 99 ? '/' : 'd';
	path[FILE_PATH_BYTES_MAX] = 0;
	assert_true(path_valid(path));
	made = conflict_path(path, &first, 1);
	assert_non_null(made);
	assert_true(path_valid(made));
	assert_true(conflict_is_copy(made));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_names),
		cmocka_unit_test(test_copies_do_not_nest),
		cmocka_unit_test(test_never_itself),
		cmocka_unit_test(test_originals),
		cmocka_unit_test(test_long_names_are_cut),
		cmocka_unit_test(test_long_extension_is_stem),
		cmocka_unit_test(test_long_path),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
