/* Cleanup attributes, descriptors that close quietly, growing arrays. */
#include "base/error.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static bool is_open(int fd)
{
	return fcntl(fd, F_GETFD) >= 0;
}

static int open_null(void)
{
	int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);

	assert_true(fd >= 0);
	return fd;
}

static void test_close_keep(void **state)
{
	int fd = open_null();

	(void)state;
	errno = ENOSPC;
	assert_int_equal(close_keep(fd), -1);
	assert_int_equal(errno, ENOSPC);
	assert_false(is_open(fd));
	errno = ENOSPC;
	assert_int_equal(close_keep(-1), -1);
	assert_int_equal(close_keep(fd), -1); /* EBADF of its own */
	assert_int_equal(errno, ENOSPC);
}

/* Returns the descriptor; whether it is still open is the caller's to see. */
static int scope_with_descriptor(bool keep, int *ret)
{
	cleanup_close int fd = open_null();
	int number = fd;

	if (keep) {
		*ret = steal_fd(fd);
		assert_int_equal(fd, -1);
	}
	errno = EDQUOT;
	return number;
}

static void test_cleanup_close(void **state)
{
	int kept = -1, fd;

	(void)state;
	fd = scope_with_descriptor(false, &kept);
	assert_int_equal(errno, EDQUOT);
	assert_false(is_open(fd));
	assert_int_equal(kept, -1);

	fd = scope_with_descriptor(true, &kept);
	assert_int_equal(fd, kept);
	assert_true(is_open(fd));
	close(fd);
}

static char *scope_with_memory(bool keep)
{
	cleanup_free char *text = strdup("text"); /* freed unless stolen: the leak checker tells */

	if (!keep)
		return NULL;
	return steal(text);
}

static void test_cleanup_free(void **state)
{
	char *text;

	(void)state;
	assert_null(scope_with_memory(false));
	text = scope_with_memory(true);
	assert_string_equal(text, "text");
	free(text);
}

static void count_up(int *n)
{
	++*n;
}
DEFINE_CLEANUP(int *, count_up)

static void test_define_cleanup(void **state)
{
	int n = 0;

	(void)state;
	{
		cleanup(count_up_p) int *p = &n;
		cleanup(count_up_p) int *nothing = NULL;

		(void)p;
		(void)nothing;
	}
	assert_int_equal(n, 1);
	{
		cleanup(count_up_p) int *p = &n;
		int *stolen = steal(p);

		assert_ptr_equal(stolen, &n);
		assert_null(p);
	}
	assert_int_equal(n, 1);
}

static void test_array_reserve_keeps_elements(void **state)
{
	uint32_t *array = NULL;
	size_t cap = 0, grown = 0;

	(void)state;
	assert_int_equal(array_reserve(&array, &cap, 0, sizeof(*array)), 0);
	for (uint32_t i = 0; i < 10000; i++) {
		size_t before = cap;

		assert_int_equal(array_reserve(&array, &cap, i + 1, sizeof(*array)), 0);
		assert_true(cap > i);
		grown += cap != before;
		array[i] = i * 7;
	}
	assert_true(grown < 15); /* doubling */
	for (uint32_t i = 0; i < 10000; i++)
		assert_int_equal(array[i], i * 7);
	free(array);
}

static void test_array_reserve_never_shrinks(void **state)
{
	char *array = NULL, *same;
	size_t cap = 0;

	(void)state;
	assert_int_equal(array_reserve(&array, &cap, 1000, 1), 0);
	same = array;
	assert_int_equal(array_reserve(&array, &cap, 10, 1), 0);
	assert_ptr_equal(array, same);
	assert_true(cap >= 1000);
	free(array);
}

static void test_array_reserve_overflow(void **state)
{
	static const struct {
		size_t need, element_bytes;
	} cases[] = {
		{SIZE_MAX, 1},
		{SIZE_MAX / 2 + 2, 1},
		{SIZE_MAX / 8, 16},
		{(size_t)1 << 61, 8},
		{((size_t)1 << 60) + 1, 8},
	};
	uint64_t *array = NULL, *before;
	size_t cap = 0, cap_before;

	(void)state;
	assert_int_equal(array_reserve(&array, &cap, 5, sizeof(*array)), 0);
	before = array;
	cap_before = cap;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		assert_int_equal(array_reserve(&array, &cap, cases[i].need, cases[i].element_bytes),
			-EOVERFLOW);
		assert_ptr_equal(array, before);
		assert_int_equal(cap, cap_before);
	}
	free(array);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_close_keep),
		cmocka_unit_test(test_cleanup_close),
		cmocka_unit_test(test_cleanup_free),
		cmocka_unit_test(test_define_cleanup),
		cmocka_unit_test(test_array_reserve_keeps_elements),
		cmocka_unit_test(test_array_reserve_never_shrinks),
		cmocka_unit_test(test_array_reserve_overflow),
	};

	return cmocka_run_group_tests_name("base/error", tests, NULL, NULL);
}
