/* tests/unit/merkle/test_ignore.c — .syncignore: gitignore's syntax and meaning. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/error.h"
#include "merkle/ignore.h"
#include "tests/unit/where.h"

DEFINE_CLEANUP(struct ignore *, ignore_free)

static struct ignore *rules(const char *text, size_t *ret_bad)
{
	struct ignore *i = NULL;

	assert_int_equal(ignore_new(&i), 0);
	assert_int_equal(ignore_set(i, "", text, strlen(text), ret_bad), 0);
	return i;
}

struct example {
	const char *text;
	const char *path; /* a trailing '/' says that it is a directory */
	bool ignored;
};

static const struct example examples[] = {
	/* names, at any depth */
	{"foo", "foo", true},
	{"foo", "foo/", true},
	{"foo", "a/b/foo", true},
	{"foo", "foo/below", true},
	{"foo", "food", false},
	{"foo", "Foo", false},
	{"foo", "afoo", false},
	/* blank lines, comments, escapes, line ends */
	{"\n\n#foo\n", "#foo", false},
	{"\\#foo", "#foo", true},
	{"\\!foo", "!foo", true},
	{"foo  ", "foo", true},
	{"foo\\ ", "foo ", true},
	{"foo\\ ", "foo", false},
	{"foo\t", "foo", false},
	{"foo\r\nbar\r\n", "foo", true},
	{"foo\r\nbar\r\n", "bar", true},
	{"\xef\xbb\xbf"
	 "foo",
		"foo", true},
	{"f\\oo", "foo", true},
	{"f\\*o", "f*o", true},
	{"f\\*o", "fxo", false},
	/* directories only */
	{"foo/", "foo", false},
	{"foo/", "foo/", true},
	{"foo/", "a/foo/x", true},
	/* anchored */
	{"/foo", "foo", true},
	{"/foo", "a/foo", false},
	{"a/foo", "a/foo", true},
	{"a/foo", "b/a/foo", false},
	{"/a/foo/", "a/foo/", true},
	{"/a/foo/", "a/foo", false},
	/* stars do not cross a slash */
	{"*", "anything", true},
	{"*.o", "a.o", true},
	{"*.o", "x/a.o", true},
	{"*.o", ".o", true},
	{"*.o", "a.oo", false},
	{"a/*.o", "a/b.o", true},
	{"a/*.o", "a/b/c.o", false},
	{"a/*", "a/b/c", true}, /* since a/b is */
	{"a*b*c", "aXbYbZc", true},
	{"a*b*c", "aXbYbZ", false},
	{"f?o", "fao", true},
	{"f?o", "fo", false},
	{"a?b", "a/b", false},
	/* sets */
	{"[abc]x", "bx", true},
	{"[abc]x", "dx", false},
	{"[!abc]x", "dx", true},
	{"[^abc]x", "ax", false},
	{"[a-c]x", "bx", true},
	{"[a-c]x", "-x", false},
	{"[a-]x", "-x", true},
	{"[]x]y", "]y", true},
	{"[]-a]y", "^y", true},
	{"[\\]]y", "]y", true},
	{"[[:digit:]]", "7", true},
	{"[[:digit:]]", "x", false},
	{"[[:nonsense:]]", "n", false},
	{"[[:upper:]x]", "x", true},
	{"[z-a]", "m", false},
	/* two stars */
	{"**/foo", "foo", true},
	{"**/foo", "a/b/foo", true},
	{"**/a/foo", "x/a/foo", true},
	{"**/a/foo", "x/b/foo", false},
	{"foo/**", "foo/a", true},
	{"foo/**", "foo/", false},
	{"foo/**", "foo/a/b/c", true},
	{"a/**/b", "a/b", true},
	{"a/**/b", "a/x/b", true},
	{"a/**/b", "a/x/y/z/b", true},
	{"a/**/b", "xa/b", false},
	{"a/**/b/**/c", "a/b/b/x/c", true},
	{"a/**/b/**/c", "a/x/c", false},
	{"**", "x", true},
	{"**/", "x", false},
	{"**/", "x/", true},
	{"a**b", "axyb", true},
	{"***/a", "x/y/a", true},
	{"/**", "x", true},
	/* the last line that matches wins; nothing below an ignored directory comes back */
	{"*.o\n!keep.o", "keep.o", false},
	{"*.o\n!keep.o", "drop.o", true},
	{"!keep.o\n*.o", "keep.o", true},
	{"dir\n!dir/keep", "dir/keep", true},
	{"dir/*\n!dir/keep", "dir/keep", false},
	{"dir/*\n!dir/keep", "dir/other", true},
	{"/*\n!/a\n/a/*\n!/a/b", "a/b", false},
	{"/*\n!/a\n/a/*\n!/a/b", "a/c", true},
	/* names are bytes */
	{"\xff?", "\xff\xfe", true},
	{"*\xc3", "x\xc3", true},
};

static void test_examples(void **state)
{
	(void)state;
	for (size_t k = 0; k < ARRAY_SIZE(examples); k++) {
		const struct example *e = &examples[k];
		cleanup(ignore_free_p) struct ignore *i = rules(e->text, NULL);
		char path[256];
		size_t n = strlen(e->path);
		bool directory = e->path[n - 1] == '/';

		snprintf(path, sizeof(path), "%.*s", (int)(n - directory), e->path);
		if (ignore_match(i, path, directory) != e->ignored)
			fail_msg("rules '%s', path '%s': should %sbe ignored", e->text, e->path,
				e->ignored ? "" : "not ");
	}
}

static void test_bad_lines_are_counted_and_skipped(void **state)
{
	static const char *bad[] = {
		"a\\", "[abc", "a//b", "!", "/", "[", "[[:nonsense:]]", "a/[/]b", "[a\\"};

	(void)state;
	for (size_t k = 0; k < ARRAY_SIZE(bad); k++) {
		char text[64];
		size_t n = 99;
		cleanup(ignore_free_p) struct ignore *i = NULL;

		snprintf(text, sizeof(text), "%s\ngood\n", bad[k]);
		i = rules(text, &n);
		if (n != 1)
			fail_msg("'%s': %zu bad lines", bad[k], n);
		assert_true(ignore_match(i, "good", false));
	}
}

static void test_nul_in_a_line(void **state)
{
	cleanup(ignore_free_p) struct ignore *i = NULL;
	size_t bad;

	(void)state;
	assert_int_equal(ignore_new(&i), 0);
	assert_int_equal(ignore_set(i, "", "a\0b\nc\n", 6, &bad), 0);
	assert_int_equal(bad, 1);
	assert_false(ignore_match(i, "a", false));
	assert_true(ignore_match(i, "c", false));
}

static void test_deeper_file_wins(void **state)
{
	cleanup(ignore_free_p) struct ignore *i = rules("*.log\n/top\n", NULL);

	(void)state;
	assert_int_equal(ignore_set(i, "a", "!keep.log\n/top\n", 15, NULL), 0);
	assert_true(ignore_match(i, "x.log", false));
	assert_true(ignore_match(i, "a/x.log", false));
	assert_true(ignore_match(i, "keep.log", false));
	assert_false(ignore_match(i, "a/keep.log", false));
	assert_false(ignore_match(i, "a/b/keep.log", false));
	assert_false(ignore_match(i, "ab/top", false)); /* anchored where the file is */
	assert_true(ignore_match(i, "a/top", false));
	assert_false(ignore_match(i, "a/b/top", false));

	ignore_forget(i, "a");
	assert_true(ignore_match(i, "a/keep.log", false));
	ignore_forget(i, "");
	assert_false(ignore_match(i, "x.log", false));
}

static void test_forget_takes_what_is_below(void **state)
{
	cleanup(ignore_free_p) struct ignore *i = rules("r", NULL);

	(void)state;
	assert_int_equal(ignore_set(i, "a/b", "x", 1, NULL), 0);
	assert_int_equal(ignore_set(i, "ab", "x", 1, NULL), 0);
	ignore_forget(i, "a");
	assert_false(ignore_match(i, "a/b/x", false));
	assert_true(ignore_match(i, "ab/x", false));
	assert_true(ignore_match(i, "r", false));
}

static void test_match_name_looks_at_the_name_only(void **state)
{
	cleanup(ignore_free_p) struct ignore *i = rules("dir\n", NULL);

	(void)state;
	assert_true(ignore_match(i, "dir/x", false));
	assert_false(ignore_match_name(i, "dir/x", false));
	assert_true(ignore_match_name(i, "dir", true));
	assert_false(ignore_match_name(i, "", true));
}

static void test_digest(void **state)
{
	cleanup(ignore_free_p) struct ignore *i = NULL, *j = NULL;
	uint64_t first;

	(void)state;
	assert_int_equal(ignore_new(&i), 0);
	assert_int_equal(ignore_new(&j), 0);
	assert_int_equal(ignore_digest(i), 0);
	assert_int_equal(ignore_set(i, "", "# nothing\n", 10, NULL), 0);
	assert_int_equal(ignore_digest(i), 0);

	assert_int_equal(ignore_set(i, "", "a", 1, NULL), 0);
	first = ignore_digest(i);
	assert_int_not_equal(first, 0);
	assert_int_equal(ignore_set(i, "d", "b", 1, NULL), 0);
	assert_int_not_equal(ignore_digest(i), first);
	assert_int_equal(ignore_set(j, "d", "# a comment is no rule\nb\n", 25, NULL), 0);
	assert_int_equal(ignore_set(j, "", "a\n", 2, NULL), 0);
	assert_int_equal(ignore_digest(i), ignore_digest(j));
	assert_int_equal(ignore_set(j, "", "!a\n", 3, NULL), 0);
	assert_int_not_equal(ignore_digest(i), ignore_digest(j));
	assert_int_equal(ignore_set(j, "", "/a\n", 3, NULL), 0);
	assert_int_not_equal(ignore_digest(i), ignore_digest(j));
	assert_int_equal(ignore_set(i, "d", "", 0, NULL), 0);
	assert_int_equal(ignore_digest(i), first);
}

/* A peer may have written the rules: neither pattern nor path may cost more than their product. */
static void test_hostile_patterns_end(void **state)
{
	char text[4096], name[256], *path, *p;
	cleanup(ignore_free_p) struct ignore *i = NULL;

	(void)state;
	for (p = text; p < text + 200; p += 2)
		memcpy(p, "a*", 2);
	*p++ = 'b';
	*p++ = '\n';
	for (int k = 0; k < 100; k++, p += 5)
		memcpy(p, "**/a/", 5);
	memcpy(p, "b\n", 3);
	i = rules(text, NULL);
	memset(name, 'a', 255);
	name[255] = '\0';
	assert_false(ignore_match(i, name, false));
	path = malloc(2 * 256 + 1);
	assert_non_null(path);
	for (int k = 0; k < 256; k++)
		memcpy(path + 2 * k, "a/", 2);
	path[511] = '\0';
	assert_false(ignore_match(i, path, false));
	path[511] = '/';
	path[512] = '\0';
	assert_false(ignore_match(i, path, false)); /* deeper than anything is synced */
	free(path); /* were the time exponential, this would not be reached */
}

static void test_too_many_rules(void **state)
{
	cleanup(ignore_free_p) struct ignore *i = rules("before", NULL);
	size_t n = 2 * (IGNORE_RULES_MAX + 1);
	char *text = malloc(n);

	(void)state;
	assert_non_null(text);
	for (size_t k = 0; k < n; k += 2)
		memcpy(text + k, "x\n", 2);
	assert_int_equal(ignore_set(i, "", text, n, NULL), -EFBIG);
	assert_true(ignore_match(i, "before", false)); /* nothing was changed */
	assert_false(ignore_match(i, "x", false));
	assert_int_equal(ignore_set(i, "", text, n - 2, NULL), 0);
	assert_true(ignore_match(i, "x", false));
	free(text);
}

/* --- reading --- */

static void write_file(int dir, const char *name, const char *text)
{
	int fd = openat(dir, name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);

	assert_true(fd >= 0);
	assert_int_equal(write(fd, text, strlen(text)), (ssize_t)strlen(text));
	close(fd);
}

static void test_read(void **state)
{
	cleanup(ignore_free_p) struct ignore *i = NULL;
	char place[64];
	cleanup_close int dir = -1;

	(void)state;
	snprintf(place, sizeof(place), "%.40s/test_ignore_XXXXXX", where_disk());
	assert_non_null(mkdtemp(place));
	dir = open(place, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	assert_true(dir >= 0);
	assert_int_equal(ignore_new(&i), 0);
	assert_int_equal(ignore_read(i, dir, ""), 0);

	write_file(dir, IGNORE_FILE_NAME, "one\n");
	assert_int_equal(ignore_read(i, dir, ""), IGNORE_CHANGED);
	assert_int_equal(ignore_read(i, dir, ""), 0);
	assert_true(ignore_match(i, "one", false));

	/* same size, at once: the times may be the same, too */
	write_file(dir, IGNORE_FILE_NAME, "two\n");
	assert_int_equal(ignore_read(i, dir, ""), IGNORE_CHANGED);
	assert_false(ignore_match(i, "one", false));
	assert_true(ignore_match(i, "two", false));

	/* too big: an error, and the rules stay */
	assert_int_equal(unlinkat(dir, IGNORE_FILE_NAME, 0), 0);
	write_file(dir, IGNORE_FILE_NAME, "x");
	{
		cleanup_close int fd = openat(dir, IGNORE_FILE_NAME, O_WRONLY | O_CLOEXEC);

		assert_int_equal(ftruncate(fd, IGNORE_FILE_BYTES_MAX + 1), 0);
	}
	assert_int_equal(ignore_read(i, dir, ""), -EFBIG);
	assert_true(ignore_match(i, "two", false));

	/* a symlink is not followed: no rules */
	assert_int_equal(unlinkat(dir, IGNORE_FILE_NAME, 0), 0);
	write_file(dir, "elsewhere", "three\n");
	assert_int_equal(symlinkat("elsewhere", dir, IGNORE_FILE_NAME), 0);
	assert_int_equal(ignore_read(i, dir, ""), IGNORE_CHANGED);
	assert_false(ignore_match(i, "two", false));
	assert_false(ignore_match(i, "three", false));

	assert_int_equal(unlinkat(dir, IGNORE_FILE_NAME, 0), 0);
	assert_int_equal(mkdirat(dir, IGNORE_FILE_NAME, 0700), 0);
	assert_int_equal(ignore_read(i, dir, ""), 0);
	assert_int_equal(unlinkat(dir, IGNORE_FILE_NAME, AT_REMOVEDIR), 0);
	assert_int_equal(unlinkat(dir, "elsewhere", 0), 0);
	assert_int_equal(rmdir(place), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_examples),
		cmocka_unit_test(test_bad_lines_are_counted_and_skipped),
		cmocka_unit_test(test_nul_in_a_line),
		cmocka_unit_test(test_deeper_file_wins),
		cmocka_unit_test(test_forget_takes_what_is_below),
		cmocka_unit_test(test_match_name_looks_at_the_name_only),
		cmocka_unit_test(test_digest),
		cmocka_unit_test(test_hostile_patterns_end),
		cmocka_unit_test(test_too_many_rules),
		cmocka_unit_test(test_read),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
