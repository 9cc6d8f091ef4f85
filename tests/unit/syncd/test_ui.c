/* What people are shown, and what programs exit with. */
#include "syncd/ui.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#include "base/error.h"
#include "merkle/store.h"
#include "syncd/exit_codes.h"

static void test_bytes(void **state)
{
	static const struct {
		uint64_t bytes;
		const char *text;
	} cases[] = {
		{0, "0 B"}, {1, "1 B"}, {99, "99 B"}, {1023, "1023 B"}, {1024, "1.0 KiB"}, {1536, "1.5 KiB"},
		{100 * 1024, "100 KiB"}, {1024 * 1024 - 1024, "1023 KiB"}, {1024 * 1024, "1.0 MiB"},
		{UINT64_C(1288490189), "1.2 GiB"}, {UINT64_C(1) << 40, "1.0 TiB"}, {UINT64_C(1) << 50, "1.0 PiB"},
		{UINT64_C(1) << 60, "1.0 EiB"}, {UINT64_MAX, "16.0 EiB"},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		char text[16];

		assert_string_equal(ui_bytes(cases[i].bytes, text), cases[i].text);
	}
}

static void test_age(void **state)
{
	static const struct {
		int64_t seconds;
		const char *text;
	} cases[] = {
		{0, "0 s"}, {119, "119 s"}, {120, "2 min"}, {7199, "119 min"}, {7200, "2 h"}, {172799, "47 h"},
		{172800, "2 d"}, {86400 * 400, "400 d"}, {INT64_MAX, "106751991167300 d"},
		/* the clock was set back: never "-30 s" */
		{-30, "0 s"}, {INT64_MIN, "0 s"},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		char text[24];

		assert_string_equal(ui_age(cases[i].seconds, text), cases[i].text);
	}
}

static void test_exit_of_session(void **state)
{
	static const struct {
		struct session_status status;
		int exit;
	} cases[] = {
		{{.in_sync = true}, EXIT_IN_SYNC},
		{{.skipped = 1}, EXIT_PARTIAL},
		{{.peer_skipped = 1}, EXIT_PARTIAL},
		{{.held = 1, .skipped = 1}, EXIT_HELD},
		{{.peer_held = 1, .skipped = 1}, EXIT_HELD},
		{{.failed = true, .error = -ENOSPC}, EXIT_SPACE},
		{{.failed = true, .error = -EDQUOT}, EXIT_SPACE},
		{{.failed = true, .error = -EPROTONOSUPPORT}, EXIT_VERSION},
		{{.failed = true, .error = -EPROTO}, EXIT_PROTOCOL},
		{{.failed = true, .error = -EPIPE}, EXIT_CONNECT},
		{{.failed = true, .error = -ETIMEDOUT}, EXIT_CONNECT},
		{{.failed = true, .error = -EIO}, EXIT_FAILED},
		/* a failure counts before what was held in a round before it */
		{{.failed = true, .error = -EIO, .held = 1}, EXIT_FAILED},
		/* the peer's word is better than the end of the stream that followed it */
		{{.failed = true, .error = -EPIPE, .peer_code = MESSAGE_FAIL_DENIED}, EXIT_DENIED},
		{{.failed = true, .error = -ECONNABORTED, .peer_code = MESSAGE_FAIL_PROTOCOL}, EXIT_PROTOCOL},
		{{.failed = true, .error = -ECONNABORTED, .peer_code = MESSAGE_FAIL_NO_FOLDER}, EXIT_NO_FOLDER},
		{{.failed = true, .error = -ECONNABORTED, .peer_code = MESSAGE_FAIL_FOLDER_ID}, EXIT_FOLDER_ID},
		{{.failed = true, .error = -ECONNABORTED, .peer_code = MESSAGE_FAIL_HALTED}, EXIT_HALTED},
		{{.failed = true, .error = -ECONNABORTED, .peer_code = MESSAGE_FAIL_BUSY}, EXIT_LOCKED},
		{{.failed = true, .error = -ECONNABORTED, .peer_code = MESSAGE_FAIL_SPACE}, EXIT_SPACE},
		{{.failed = true, .error = -ECONNABORTED, .peer_code = MESSAGE_FAIL_INTERNAL}, EXIT_FAILED},
		{{.failed = true, .error = -ECONNABORTED, .peer_code = MESSAGE_FAIL_SAME}, EXIT_USAGE},
		{{.failed = true, .error = -ECONNABORTED, .peer_code = UINT16_MAX}, EXIT_FAILED},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++)
		if (ui_exit_of_session(&cases[i].status) != cases[i].exit)
			fail_msg("case %zu: %d instead of %d", i, ui_exit_of_session(&cases[i].status), cases[i].exit);
}

static void test_exit_of_transport(void **state)
{
	static const int cases[][2] = {
		{TRANSPORT_EXIT_OK, EXIT_IN_SYNC}, {TRANSPORT_EXIT_USAGE, EXIT_USAGE},
		{TRANSPORT_EXIT_RESOLVE, EXIT_CONNECT}, {TRANSPORT_EXIT_CONNECT, EXIT_CONNECT},
		{TRANSPORT_EXIT_HOST_KEY, EXIT_HOST_KEY}, {TRANSPORT_EXIT_AUTH, EXIT_AUTH},
		{TRANSPORT_EXIT_PROTOCOL, EXIT_CONNECT}, {TRANSPORT_EXIT_COMMAND, EXIT_COMMAND}, {255, EXIT_CONNECT},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++)
		assert_int_equal(ui_exit_of_transport(cases[i][0]), cases[i][1]);
}

static void test_exit_of_store(void **state)
{
	static const int cases[][2] = {
		{0, EXIT_IN_SYNC}, {STORE_NO_ROOT, EXIT_NO_FOLDER}, {STORE_NO_INDEX, EXIT_NO_FOLDER},
		{STORE_LOCKED, EXIT_LOCKED}, {STORE_ROOT_CHANGED, EXIT_HALTED}, {STORE_FOREIGN, EXIT_HALTED},
		{STORE_DENIED, EXIT_DENIED}, {STORE_READ_ONLY, EXIT_FAILED}, {STORE_OVERLAP, EXIT_USAGE},
		{-ENOSPC, EXIT_SPACE}, {-EDQUOT, EXIT_SPACE}, {-EIO, EXIT_FAILED}, {-EBADMSG, EXIT_FAILED},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++)
		assert_int_equal(ui_exit_of_store(cases[i][0]), cases[i][1]);
}

static void test_count(void **state)
{
	char ret[48];

	(void)state;
	assert_string_equal(ui_count(0, "path", ret), "0 paths");
	assert_string_equal(ui_count(1, "path", ret), "1 path");
	assert_string_equal(ui_count(UINT64_MAX, "local difference", ret), "18446744073709551615 local differences");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_count),
		cmocka_unit_test(test_bytes),
		cmocka_unit_test(test_age),
		cmocka_unit_test(test_exit_of_session),
		cmocka_unit_test(test_exit_of_transport),
		cmocka_unit_test(test_exit_of_store),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
