/* tests/unit/tombstones/test_purge.c — when a tombstone may go. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/error.h"
#include "tombstones/purge.h"

#define SELF 1
#define DAY (24 * 3600 * CLOCK_NS_PER_S)
#define NOW (1000 * DAY)

struct world {
	struct record tombstone;
	struct version_vector k;
	struct members members;
	struct purge_policy policy;
	int64_t since_ns;
};

static void raise_to(struct version_vector *v, uint64_t inc, uint64_t counter)
{
	assert_int_equal(version_vector_raise(v, (struct version_dot){inc, counter}, NULL), 0);
}

/* A tombstone that may go: old enough, known to us and to the one other member. */
static void world_init(struct world *w)
{
	struct member *other;

	*w = (struct world){
		.policy = {.grace_ns = 10 * DAY, .member_expiry_ns = 90 * DAY, .now_ns = NOW},
		.since_ns = NOW - 10 * DAY,
	};
	raise_to(&w->tombstone.vv, 8, 5);
	assert_int_equal(version_dots_add(&w->tombstone.dots, (struct version_dot){8, 5}), 0);
	raise_to(&w->k, 8, 6);
	assert_int_equal(members_add(&w->members, SELF, &other), 0);
	assert_int_equal(members_add(&w->members, 2, &other), 0);
	other->seen_ns = NOW - DAY;
	raise_to(&other->k, 8, 5);
}

static void world_deinit(struct world *w)
{
	record_deinit(&w->tombstone);
	version_vector_deinit(&w->k);
	members_deinit(&w->members);
}

static bool allowed(struct world *w)
{
	return purge_allowed(&w->tombstone, w->since_ns, &w->k, &w->members, SELF, &w->policy, NULL);
}

static void test_allowed(void **state)
{
	struct world w;

	(void)state;
	world_init(&w);
	assert_true(allowed(&w));
	w.tombstone.live = true;
	assert_false(allowed(&w));
	world_deinit(&w);
}

static void test_knowledge(void **state)
{
	struct world w;

	(void)state;
	world_init(&w);
	raise_to(&w.tombstone.vv, 9, 1); /* descends from what our K does not cover */
	assert_false(allowed(&w));
	raise_to(&w.k, 9, 1);
	assert_false(allowed(&w)); /* the member's does not */
	raise_to(&members_find(&w.members, 2)->k, 9, 2);
	assert_true(allowed(&w));
	world_deinit(&w);
}

static void test_grace(void **state)
{
	struct world w;

	(void)state;
	world_init(&w);
	w.since_ns++;
	assert_false(allowed(&w));
	w.since_ns = NOW + 500 * DAY; /* the clock went back */
	assert_false(allowed(&w));
	w.since_ns = INT64_MIN;
	w.policy.now_ns = INT64_MAX;
	members_find(&w.members, 2)->seen_ns = INT64_MAX;
	assert_true(allowed(&w));
	world_deinit(&w);
}

static void test_members(void **state)
{
	struct member *other;
	struct world w;

	(void)state;
	world_init(&w);
	other = members_find(&w.members, 2);
	other->excepted = true;
	assert_false(allowed(&w));
	other->retired = true;
	assert_true(allowed(&w));
	other->retired = false;
	other->seen_ns = NOW - 90 * DAY;
	assert_true(allowed(&w)); /* expired */
	other->seen_ns++;
	assert_false(allowed(&w));
	other->seen_ns = NOW - 900 * DAY;
	w.policy.member_expiry_ns = 0; /* never expires */
	assert_false(allowed(&w));
	w.policy.member_expiry_ns = DAY;
	other->seen_ns = NOW + DAY; /* the clock went back: nobody has expired */
	assert_false(allowed(&w));
	world_deinit(&w);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_allowed),
		cmocka_unit_test(test_knowledge),
		cmocka_unit_test(test_grace),
		cmocka_unit_test(test_members),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
