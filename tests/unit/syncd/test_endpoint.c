/* How people name a replica: paths, host:PATH, ssh:// addresses, and what must not pass for a host. */
#include "syncd/endpoint.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/error.h"

static void assert_text(const char *a, const char *b)
{
	if (!b)
		assert_null(a);
	else
		assert_string_equal(a, b);
}

static void test_good(void **state)
{
	static const struct {
		const char *text;
		bool remote;
		const char *user, *host;
		uint16_t port;
		const char *path;
	} cases[] = {
		{"docs", false, NULL, NULL, 0, "docs"},
		{"./a:b", false, NULL, NULL, 0, "./a:b"},
		{"/srv/a:b", false, NULL, NULL, 0, "/srv/a:b"},
		{"a/b:c", false, NULL, NULL, 0, "a/b:c"},
		{"~/docs", false, NULL, NULL, 0, "~/docs"},
		{"-rf", false, NULL, NULL, 0, "-rf"},
		{"user@host", false, NULL, NULL, 0, "user@host"},
		{"/a@b:[c]:d", false, NULL, NULL, 0, "/a@b:[c]:d"},
		{"host:/srv/docs", true, NULL, "host", 0, "/srv/docs"},
		{"host:docs", true, NULL, "host", 0, "docs"},
		{"host:~/docs", true, NULL, "host", 0, "~/docs"},
		{"host:", true, NULL, "host", 0, "."},
		{"host:a:b", true, NULL, "host", 0, "a:b"},
		{"host:-rf", true, NULL, "host", 0, "-rf"},
		{"me@host.example:/x", true, "me", "host.example", 0, "/x"},
		{"me@corp@host:/x", true, "me@corp", "host", 0, "/x"},
		{"[fe80::1]:/x", true, NULL, "fe80::1", 0, "/x"},
		{"me@[::1]:x:y", true, "me", "::1", 0, "x:y"},
		{"host:/a]b", true, NULL, "host", 0, "/a]b"},
		{"host:[x]:y", true, NULL, "host", 0, "[x]:y"},
		{"ssh://host/srv/docs", true, NULL, "host", 0, "/srv/docs"},
		{"ssh://host/~/docs", true, NULL, "host", 0, "~/docs"},
		{"ssh://host/", true, NULL, "host", 0, "/"},
		{"ssh://me@host:2222/x:y", true, "me", "host", 2222, "/x:y"},
		{"ssh://host:65535/x", true, NULL, "host", 65535, "/x"},
		{"ssh://host:00022/x", true, NULL, "host", 22, "/x"},
		{"ssh://[::1]/x", true, NULL, "::1", 0, "/x"},
		{"ssh://me@[fe80::1]:22/x", true, "me", "fe80::1", 22, "/x"},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct endpoint e = {0};
		const char *why = NULL;
		int r = endpoint_parse(&e, cases[i].text, &why);

		if (r != 0)
			print_error("%s: %s\n", cases[i].text, why);
		assert_int_equal(r, 0);
		if (e.remote != cases[i].remote || strcmp(e.path, cases[i].path) != 0)
			print_error("%s: remote %d, path %s\n", cases[i].text, e.remote, e.path);
		assert_int_equal(e.remote, cases[i].remote);
		assert_text(e.user, cases[i].user);
		assert_text(e.host, cases[i].host);
		assert_int_equal(e.port, cases[i].port);
		assert_text(e.path, cases[i].path);
		endpoint_deinit(&e);
		assert_null(e.path);
		endpoint_deinit(&e); /* harmless */
	}
}

static void test_bad(void **state)
{
	static const char *const cases[] = {
		"", ":x", ":", "@host:x", "me@:x", "-oProxyCommand=reboot:x", "-l@host:x", "me@-host:x", "[-host]:x", "[]:x", "ho st:x",
		"ssh://", "ssh:///x", "ssh://host", "ssh://host:22", "ssh://-host/x", "ssh://-u@host/x", "ssh://@host/x", "ssh://me@/x",
		"ssh://host:/x", "ssh://host:0/x", "ssh://host:65536/x", "ssh://host:99999999999999999999/x", "ssh://host:2x/x",
		"ssh://host:-1/x", "ssh://host:+1/x", "ssh://:22/x", "ssh://[::1]:x/y",
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct endpoint e = {.path = (char *)"untouched"};
		const char *why = NULL;
		int r = endpoint_parse(&e, cases[i], &why);

		if (r != -EINVAL)
			print_error("%s was accepted: %s %s %s\n", cases[i], e.user ? e.user : "", e.host ? e.host : "", e.path);
		assert_int_equal(r, -EINVAL);
		assert_non_null(why);
		assert_string_not_equal(why, "out of memory");
		assert_string_equal(e.path, "untouched");
	}
}

/* Different places have different addresses, and an address names the place that it is of. */
static void test_address(void **state)
{
	static const struct {
		const char *text, *address; /* address NULL: below the current directory */
	} cases[] = {
		{"/srv/docs", "/srv/docs"}, {"/srv/docs//", "/srv/docs"}, {"/", "/"}, {"~/docs", "~/docs"},
		{"docs", NULL}, {".//docs/", NULL},
		{"host:docs", "host:docs"}, {"host:./docs/", "host:docs"}, {"host:", "host:."},
		{"me@host:/srv/docs", "me@host:/srv/docs"}, {"[::1]:docs", "[::1]:docs"},
		{"ssh://me@host:2222/srv", "ssh://me@host:2222/srv"}, {"ssh://[::1]:22/~/docs", "ssh://[::1]:22/~/docs"},
		{"ssh://host/srv", "host:/srv"},
	};
	char here[4096], want[4200];

	(void)state;
	assert_non_null(getcwd(here, sizeof(here)));
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct endpoint e = {0}, again = {0};
		const char *why;
		char *address, *second;

		assert_int_equal(endpoint_parse(&e, cases[i].text, &why), 0);
		address = endpoint_address(&e);
		snprintf(want, sizeof(want), "%s/docs", here);
		assert_string_equal(address, cases[i].address ? cases[i].address : want);
		assert_int_equal(endpoint_parse(&again, address, &why), 0);
		second = endpoint_address(&again);
		assert_string_equal(second, address);
		assert_int_equal(again.remote, e.remote);
		assert_int_equal(again.port, e.port);
		free(address);
		free(second);
		endpoint_deinit(&e);
		endpoint_deinit(&again);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_good), cmocka_unit_test(test_bad), cmocka_unit_test(test_address)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
