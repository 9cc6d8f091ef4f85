/* One sink, levels, and names quoted so that they can write neither on a terminal nor a line. */
#include "base/log.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/error.h"
#include "base/random.h"

#define ELLIPSIS "\xe2\x80\xa6"

static void assert_quoted(const char *bytes, const char *expected)
{
	char text[1024];

	assert_ptr_equal(text_quote(text, sizeof(text), bytes), text);
	assert_string_equal(text, expected);
}

static void test_quote_plain(void **state)
{
	(void)state;
	assert_quoted("", "''");
	assert_quoted("a file.txt", "'a file.txt'");
	assert_quoted("~!@#$%^&*()\"`", "'~!@#$%^&*()\"`'");
}

static void test_quote_control_bytes(void **state)
{
	(void)state;
	assert_quoted("a\nb", "'a\\x0ab'");
	assert_quoted("\x1b[2J", "'\\x1b[2J'");
	assert_quoted("\r\t\x01\x7f", "'\\x0d\\x09\\x01\\x7f'");
	assert_quoted("it's", "'it\\x27s'");
	assert_quoted("\\x41", "'\\x5cx41'");
	assert_quoted("\xc2\x9b"
		      "31m",
		"'\\xc2\\x9b31m'"); /* CSI as a C1 control */
}

static void test_quote_utf8(void **state)
{
	static const char *const kept[] = {"\xc2\xa0", "\xc3\xa9", "\xdf\xbf", "\xe0\xa0\x80",
		"\xe2\x82\xac", "\xed\x9f\xbf", "\xee\x80\x80", "\xf0\x90\x80\x80",
		"\xf0\x9f\x98\x80", "\xf4\x8f\xbf\xbf"};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(kept); i++) {
		char expected[16];

		snprintf(expected, sizeof(expected), "'%s'", kept[i]);
		assert_quoted(kept[i], expected);
	}
}

static void test_quote_invalid_utf8(void **state)
{
	(void)state;
	assert_quoted("\xff\xfe", "'\\xff\\xfe'");
	assert_quoted("\x80z", "'\\x80z'"); /* a continuation alone */
	assert_quoted("\xc3", "'\\xc3'");   /* cut off by the end */
	assert_quoted("\xe2\x82", "'\\xe2\\x82'");
	assert_quoted("\xf0\x9f\x98", "'\\xf0\\x9f\\x98'");
	assert_quoted("\xc3(", "'\\xc3('");	   /* cut off by something else */
	assert_quoted("\xc0\xaf", "'\\xc0\\xaf'"); /* overlong slash */
	assert_quoted("\xc1\xbf", "'\\xc1\\xbf'");
	assert_quoted("\xe0\x80\xaf", "'\\xe0\\x80\\xaf'");
	assert_quoted("\xf0\x80\x80\xaf", "'\\xf0\\x80\\x80\\xaf'");
	assert_quoted("\xed\xa0\x80", "'\\xed\\xa0\\x80'");	     /* surrogate */
	assert_quoted("\xf4\x90\x80\x80", "'\\xf4\\x90\\x80\\x80'"); /* beyond Unicode */
	assert_quoted("\xf5\x80\x80\x80", "'\\xf5\\x80\\x80\\x80'");
}

/* Characters that reorder or break what stands around them. */
static void test_quote_direction_and_lines(void **state)
{
	(void)state;
	assert_quoted("\xe2\x80\xa8", "'\\xe2\\x80\\xa8'"); /* line separator */
	assert_quoted("\xe2\x80\xa9", "'\\xe2\\x80\\xa9'"); /* paragraph separator */
	assert_quoted("a\xe2\x80\xaegpj.exe", "'a\\xe2\\x80\\xaegpj.exe'");
	assert_quoted("\xe2\x81\xa6", "'\\xe2\\x81\\xa6'"); /* isolates */
	assert_quoted("\xe2\x81\xa9", "'\\xe2\\x81\\xa9'");
	assert_quoted("\xe2\x80\xaf", "'\xe2\x80\xaf'"); /* narrow space: harmless */
}

static void test_quote_cut(void **state)
{
	char text[16];

	(void)state;
	text_quote(text, sizeof(text), "abcdefghijklmnopqrstuvwxyz");
	assert_string_equal(text, "'abcdefghij" ELLIPSIS "'");
	text_quote(text, 8, "abcdefgh");
	assert_string_equal(text, "'ab" ELLIPSIS "'");
	/* never in the middle of an escape or of a character */
	text_quote(text, sizeof(text), "\n\n\n\n");
	assert_string_equal(text, "'\\x0a\\x0a" ELLIPSIS "'");
	text_quote(text, sizeof(text), "\xe2\x82\xac\xe2\x82\xac\xe2\x82\xac\xe2\x82\xac");
	assert_string_equal(text, "'\xe2\x82\xac\xe2\x82\xac\xe2\x82\xac" ELLIPSIS "'");
}

static void test_quote_tiny(void **state)
{
	char text[8];

	(void)state;
	for (size_t cap = 1; cap < 8; cap++) {
		memset(text, 'x', sizeof(text));
		text_quote(text, cap, "abc");
		assert_string_equal(text, "");
	}
	text[0] = 'x';
	text_quote(text, 0, "abc");
	assert_int_equal(text[0], 'x');
}

/* Whatever the bytes and the room: inside it, in quotes, and printable throughout. */
static void test_quote_random(void **state)
{
	(void)state;
	for (int round = 0; round < 20000; round++) {
		char bytes[64];
		size_t cap = 8 + random_below(120), n = random_below(sizeof(bytes));
		char *text = malloc(cap);
		size_t len;

		assert_non_null(text);
		random_bytes(bytes, n);
		bytes[n] = 0;
		text_quote(text, cap, bytes);
		len = strlen(text);
		assert_true(len < cap && len >= 2);
		assert_true(text[0] == '\'' && text[len - 1] == '\'');
		for (size_t i = 1; i < len - 1; i++) {
			uint8_t byte = (uint8_t)text[i];

			assert_true(byte >= 0x20 && byte != 0x7f && byte != '\'');
		}
		free(text);
	}
}

static void test_quoted_ring(void **state)
{
	const char *a = quoted("a"), *b = quoted("b"), *c = quoted("c"), *d = quoted("d");
	char name[5000];

	(void)state;
	assert_string_equal(a, "'a'");
	assert_string_equal(b, "'b'");
	assert_string_equal(c, "'c'");
	assert_string_equal(d, "'d'");
	memset(name, 'n', sizeof(name));
	name[sizeof(name) - 1] = 0;
	assert_true(strlen(quoted(name)) < 1024);
}

struct heard {
	int count;
	enum log_level level;
	char line[4096];
};

static void hear(enum log_level level, const char *line, void *data)
{
	struct heard *h = data;

	h->count++;
	h->level = level;
	snprintf(h->line, sizeof(h->line), "%s", line);
}

static void test_sink_and_level(void **state)
{
	struct heard h = {0};

	(void)state;
	log_set_sink(hear, &h);
	log_info("%s has %d", quoted("a\nb"), 3);
	assert_int_equal(h.count, 1);
	assert_int_equal(h.level, LOG_LEVEL_INFO);
	assert_string_equal(h.line, "'a\\x0ab' has 3");
	log_debug("not by default");
	assert_int_equal(h.count, 1);
	log_set_level(LOG_LEVEL_DEBUG);
	log_debug("now");
	assert_int_equal(h.count, 2);
	assert_int_equal(h.level, LOG_LEVEL_DEBUG);
	log_set_level(LOG_LEVEL_ERROR);
	log_warning("no");
	assert_int_equal(h.count, 2);
	log_error("yes");
	assert_int_equal(h.count, 3);
	log_set_level(LOG_LEVEL_INFO);
	log_set_sink(NULL, NULL);
}

static void test_long_line_is_cut(void **state)
{
	struct heard h = {0};
	char text[4000];

	(void)state;
	memset(text, 't', sizeof(text));
	text[sizeof(text) - 1] = 0;
	log_set_sink(hear, &h);
	log_info("%s", text);
	log_set_sink(NULL, NULL);
	assert_int_equal(h.count, 1);
	assert_in_range(strlen(h.line), 1024, sizeof(text) - 1);
}

static void test_default_sink(void **state)
{
	static const char expected[] = "prog: error: one\nprog: warning: two\nprog: three\n";
	char text[256] = "";
	FILE *file = tmpfile();
	int saved = dup(STDERR_FILENO);

	(void)state;
	assert_non_null(file);
	fflush(stderr);
	dup2(fileno(file), STDERR_FILENO);
	log_set_name("prog");
	log_error("one");
	log_warning("two");
	log_info("three");
	log_debug("four");
	fflush(stderr);
	dup2(saved, STDERR_FILENO);
	close(saved);
	rewind(file);
	text[fread(text, 1, sizeof(text) - 1, file)] = 0;
	fclose(file);
	assert_string_equal(text, expected);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_quote_plain),
		cmocka_unit_test(test_quote_control_bytes),
		cmocka_unit_test(test_quote_utf8),
		cmocka_unit_test(test_quote_invalid_utf8),
		cmocka_unit_test(test_quote_direction_and_lines),
		cmocka_unit_test(test_quote_cut),
		cmocka_unit_test(test_quote_tiny),
		cmocka_unit_test(test_quote_random),
		cmocka_unit_test(test_quoted_ring),
		cmocka_unit_test(test_sink_and_level),
		cmocka_unit_test(test_long_line_is_cut),
		cmocka_unit_test(test_default_sink),
	};

	return cmocka_run_group_tests_name("base/log", tests, NULL, NULL);
}
