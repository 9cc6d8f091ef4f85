/* tests/unit/transfer/test_serve.c — the compression of content follows the backlog. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "transfer/session_internal.h"

#define PART 512000

/* So much content, and the wire was faster or not. */
static void serve(struct session *s, uint64_t bytes, bool taken)
{
	for (uint64_t n = 0; n < bytes; n += PART)
		serve_watch_wire(s, PART, taken);
}

static void test_a_free_wire_costs_less(void **state)
{
	struct session s = {.level = SERVE_LEVEL_FIRST};

	(void)state;
	serve(&s, 4 << 20, true);
	assert_int_equal(s.level, SERVE_LEVEL_FIRST);
	serve_watch_wire(&s, 1, false); /* one wait: from the beginning */
	serve(&s, 7 << 20, true);
	assert_int_equal(s.level, SERVE_LEVEL_FIRST);
	serve(&s, 100 << 20, true);
	assert_int_equal(s.level, 0);
}

static void test_a_busy_wire_is_worth_more(void **state)
{
	struct session s = {.level = SERVE_LEVEL_FIRST};

	(void)state;
	/* What was asked for at once is no backlog of the wire's. */
	for (int i = 0; i < 10; i++) {
		serve(&s, SESSION_WINDOW_BYTES, false);
		serve_watch_wire(&s, 1, true);
	}
	assert_int_equal(s.level, SERVE_LEVEL_FIRST);
	serve(&s, 200 << 20, false);
	assert_int_equal(s.level, SERVE_LEVELS - 1);
	serve(&s, 100 << 20, true);
	assert_int_equal(s.level, 0);
	serve(&s, 17 << 20, false);
	assert_int_equal(s.level, 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_a_free_wire_costs_less),
		cmocka_unit_test(test_a_busy_wire_is_worth_more),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
