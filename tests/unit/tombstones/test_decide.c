/* tests/unit/tombstones/test_decide.c — the rows of the decision table, by name. Random cases:
 * `make differential`. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/error.h"
#include "tombstones/decide.h"

/* Vectors and dots are written "1:3 2:1". A replica's incarnation is its number. */
struct spec {
	uint8_t kind; /* 0: a tombstone */
	uint8_t content;
	const char *vv, *dots, *lost;
	uint16_t mode; /* 0: 0644 */
	const char *adots;
	int64_t mtime_ns;
	const char *mdots;
};

#define FILE_(content_, vv_, dots_, ...) \
	(&(struct spec){                 \
		.kind = RECORD_FILE, .content = content_, .vv = vv_, .dots = dots_, __VA_ARGS__})
#define DIRECTORY_(vv_, dots_, ...) \
	(&(struct spec){.kind = RECORD_DIRECTORY, .vv = vv_, .dots = dots_, __VA_ARGS__})
#define TOMBSTONE_(vv_, dots_, ...) (&(struct spec){.vv = vv_, .dots = dots_, __VA_ARGS__})

static void add_dots(struct version_dots *d, const char *spec)
{
	unsigned long long inc, counter;
	int n;

	for (; spec && sscanf(spec, " %llu:%llu%n", &inc, &counter, &n) == 2; spec += n)
		assert_int_equal(version_dots_add(d, (struct version_dot){inc, counter}), 0);
}

static void raise_all(struct version_vector *v, const char *spec)
{
	unsigned long long inc, counter;
	int n;

	for (; spec && sscanf(spec, " %llu:%llu%n", &inc, &counter, &n) == 2; spec += n)
		assert_int_equal(
			version_vector_raise(v, (struct version_dot){inc, counter}, NULL), 0);
}

static const struct record *build(struct record *ret, const struct spec *s)
{
	if (!s)
		return NULL;
	raise_all(&ret->vv, s->vv);
	add_dots(&ret->dots, s->dots);
	add_dots(&ret->lost, s->lost);
	if (!s->kind)
		return ret;
	ret->live = true;
	ret->kind = s->kind;
	ret->content.root.bytes[0] = s->content;
	ret->mode = s->mode ? s->mode : 0644;
	ret->mtime_ns = s->mtime_ns;
	add_dots(&ret->adots, s->adots ? s->adots : s->dots);
	if (s->kind != RECORD_DIRECTORY)
		add_dots(&ret->mdots, s->mdots ? s->mdots : s->dots);
	return ret;
}

struct context {
	const struct decide_policy *policy;
	const struct version_lineage *lineage;
	bool taker_loses;
	uint64_t revert;
};

static struct decide_result ask_in(const struct context *context, const struct spec *ours,
	const char *our_k, const struct spec *theirs, const char *their_k)
{
	struct version_vector ko = {0}, kt = {0};
	struct record o = {0}, t = {0};
	struct decide_result d = {0};
	struct decide_input in = {
		.ours = build(&o, ours),
		.theirs = build(&t, theirs),
		.our_k = &ko,
		.their_k = &kt,
		.policy = context->policy,
		.lineage = context->lineage,
		.taker_loses = context->taker_loses,
		.revert = context->revert,
	};

	raise_all(&ko, our_k);
	raise_all(&kt, their_k);
	assert_int_equal(decide(&in, &d), 0);
	version_vector_deinit(&ko);
	version_vector_deinit(&kt);
	record_deinit(&o);
	record_deinit(&t);
	return d;
}

static struct decide_result ask(
	const struct spec *ours, const char *our_k, const struct spec *theirs, const char *their_k)
{
	return ask_in(&(struct context){0}, ours, our_k, theirs, their_k);
}

static enum decide_action action_of(struct decide_result d)
{
	enum decide_action action = d.action;

	decide_result_deinit(&d);
	return action;
}

#define ASSERT_ACTION(expected, ...) \
	assert_string_equal(         \
		decide_action_name(action_of(ask(__VA_ARGS__))), decide_action_name(expected))

/* The record decided on is as specified, mode and mtime included. Frees the result. */
static void assert_result(struct decide_result d, enum decide_action action, const struct spec *s)
{
	struct record expected = {0};

	assert_string_equal(decide_action_name(d.action), decide_action_name(action));
	build(&expected, s);
	assert_true(record_equal(&d.record, &expected));
	record_deinit(&expected);
	decide_result_deinit(&d);
}

static void test_absent(void **state)
{
	(void)state;
	ASSERT_ACTION(DECIDE_NONE, NULL, "1:5", NULL, "1:5");
	ASSERT_ACTION(DECIDE_NONE, NULL, "1:5", FILE_(1, "1:3", "1:3"),
		"1:3"); /* seen, deleted since, purged */
	assert_result(ask(NULL, "1:2", FILE_(1, "1:3", "1:3"), "1:3"), DECIDE_TAKE,
		FILE_(1, "1:3", "1:3"));
	assert_result(ask(NULL, "", TOMBSTONE_("1:3", "1:3"), "1:3"), DECIDE_TAKE,
		TOMBSTONE_("1:3", "1:3"));
	ASSERT_ACTION(DECIDE_NONE, FILE_(1, "1:3", "1:3"), "1:3", NULL, "1:2");
	ASSERT_ACTION(DECIDE_DELETE, FILE_(1, "1:3", "1:3"), "1:3", NULL, "1:3");
	/* a descendant of what they saw and deleted stays */
	ASSERT_ACTION(DECIDE_NONE, FILE_(1, "1:3 2:4", "2:4"), "1:3 2:4", NULL, "1:9");
	ASSERT_ACTION(DECIDE_DROP, TOMBSTONE_("1:3 2:1", "1:3"), "1:3 2:1", NULL, "1:3");
	ASSERT_ACTION(DECIDE_NONE, TOMBSTONE_("1:3 2:1", "1:3"), "1:3", NULL, "1:3");
}

static void test_one_side_saw(void **state)
{
	(void)state;
	assert_result(ask(FILE_(1, "1:1", "1:1"), "1:1", FILE_(2, "1:1 2:2", "2:2"), "1:1 2:2"),
		DECIDE_TAKE, FILE_(2, "1:1 2:2", "2:2", .adots = "2:2"));
	assert_result(ask(FILE_(1, "1:1", "1:1"), "1:1", TOMBSTONE_("1:1 2:2", "2:2"), "1:1 2:2"),
		DECIDE_TAKE, TOMBSTONE_("1:1 2:2", "2:2"));
	ASSERT_ACTION(
		DECIDE_NONE, FILE_(2, "1:1 2:2", "2:2"), "1:1 2:2", FILE_(1, "1:1", "1:1"), "1:1");
	ASSERT_ACTION(
		DECIDE_NONE, TOMBSTONE_("1:1 2:2", "2:2"), "2:2", FILE_(1, "1:1", "1:1"), "1:1");
	/* seen through K, not through vv: theirs is a new file at a path where ours was seen and
	 * deleted and purged */
	assert_result(ask(FILE_(1, "1:1", "1:1"), "1:1", FILE_(2, "2:2", "2:2"), "1:1 2:2"),
		DECIDE_TAKE, FILE_(2, "1:1 2:2", "2:2", .adots = "1:1 2:2"));
}

static void test_same_state(void **state)
{
	(void)state;
	assert_result(ask(FILE_(1, "1:1", "1:1"), "1:1", FILE_(1, "2:1", "2:1"), "2:1"),
		DECIDE_MERGE, FILE_(1, "1:1 2:1", "1:1 2:1"));
	ASSERT_ACTION(DECIDE_NONE, FILE_(1, "1:1", "1:1"), "1:1", FILE_(1, "1:1", "1:1"), "2:1");
	/* a dot that the other knows and does not name any more goes; lost is united */
	assert_result(ask(FILE_(1, "1:1", "1:1", .lost = "3:1"), "1:1",
			      FILE_(1, "1:1 2:2", "2:2", .lost = "4:1"), ""),
		DECIDE_MERGE, FILE_(1, "1:1 2:2", "2:2", .lost = "3:1 4:1"));
	/* who only takes is ahead of the peer from then on: nothing to write again */
	ASSERT_ACTION(DECIDE_NONE, FILE_(1, "1:1 2:1", "1:1 2:1"), "1:1 2:1", FILE_(1, "2:1", "2:1"), "2:1");
	assert_result(ask(TOMBSTONE_("1:1", "1:1"), "1:1", TOMBSTONE_("2:1", "2:1"), "2:1"),
		DECIDE_MERGE, TOMBSTONE_("1:1 2:1", "1:1 2:1"));
	/* directories conflict in attributes only */
	assert_result(
		ask(DIRECTORY_("1:1", "1:1"), "1:1", DIRECTORY_("2:2", "2:2", .mode = 0700), "2:2"),
		DECIDE_MERGE, DIRECTORY_("1:1 2:2", "1:1 2:2", .mode = 0700, .adots = "2:2"));
}

static void test_edit_beats_deletion(void **state)
{
	(void)state;
	assert_result(
		ask(FILE_(2, "1:1 2:2", "2:2"), "1:1 2:2", TOMBSTONE_("1:1 3:9", "3:9"), "1:1 3:9"),
		DECIDE_MERGE, FILE_(2, "1:1 2:2 3:9", "2:2"));
	assert_result(
		ask(TOMBSTONE_("1:1 3:9", "3:9"), "1:1 3:9", FILE_(2, "1:1 2:2", "2:2"), "1:1 2:2"),
		DECIDE_TAKE, FILE_(2, "1:1 2:2 3:9", "2:2"));
	/* but a deletion that saw the state wins over a chmod */
	assert_result(ask(FILE_(1, "1:1 2:2", "1:1", .adots = "2:2"), "1:1 2:2",
			      TOMBSTONE_("1:1 3:2", "3:2"), "1:1 3:2"),
		DECIDE_TAKE, TOMBSTONE_("1:1 2:2 3:2", "3:2"));
}

static void test_conflict(void **state)
{
	const struct spec *low = FILE_(1, "1:1 2:2", "2:2", .lost = "5:1"),
			  *high = FILE_(2, "1:1 3:3", "3:3");

	(void)state;
	ASSERT_ACTION(DECIDE_WAIT, high, "1:1 3:3", low, "1:1 2:2");
	assert_result(ask(low, "1:1 2:2", high, "1:1 3:3"), DECIDE_ASIDE,
		FILE_(2, "1:1 2:2 3:3", "3:3", .lost = "2:2 5:1", .adots = "2:2 3:3"));
	/* against a peer that only sends, ours goes aside even if it would win */
	assert_result(
		ask_in(&(struct context){.taker_loses = true}, high, "1:1 3:3", low, "1:1 2:2"),
		DECIDE_ASIDE,
		FILE_(1, "1:1 2:2 3:3", "2:2", .lost = "3:3 5:1", .adots = "2:2 3:3"));
}

static void test_resolutions(void **state)
{
	const struct spec *a = FILE_(1, "1:1 2:2", "1:1", .lost = "2:2"),
			  *b = FILE_(2, "1:1 2:2", "2:2", .lost = "1:1");
	const struct spec *plain = FILE_(2, "1:1 2:2", "2:2");

	(void)state;
	assert_result(ask(a, "", b, ""), DECIDE_TAKE,
		FILE_(2, "1:1 2:2", "2:2", .lost = "1:1", .adots = "1:1 2:2"));
	assert_result(ask(b, "", a, ""), DECIDE_MERGE,
		FILE_(2, "1:1 2:2", "2:2", .lost = "1:1", .adots = "1:1 2:2"));
	/* what had won was seen, and deleted, where the loser stands again: the loser stays */
	ASSERT_ACTION(DECIDE_MERGE, plain, "", a, "");
	ASSERT_ACTION(DECIDE_TAKE, a, "", plain, "");
	/* each was seen, and removed, at the other */
	ASSERT_ACTION(DECIDE_DELETE, FILE_(1, "1:1", "1:1"), "2:2", FILE_(2, "2:2", "2:2"), "1:1");
	ASSERT_ACTION(DECIDE_NONE, TOMBSTONE_("1:1", "1:1"), "2:2", FILE_(2, "2:2", "2:2"), "1:1");
}

/*
 * Ours was removed by what lost to theirs, and theirs by what lost to ours: one of them stays, as a new event. What was removed
 * by something else may have been deleted, and is not back.
 */
static void test_circles(void **state)
{
	const struct spec *young = FILE_(1, "1:1 2:2 4:4", "1:1", .lost = "4:4", .mtime_ns = 2);
	const struct spec *old = FILE_(2, "1:1 2:2 3:3", "2:2", .lost = "3:3", .mtime_ns = 1);
	const struct spec *same = FILE_(1, "1:1 2:2 3:3", "2:2", .lost = "3:3", .mtime_ns = 2);
	const struct spec *beat_nothing = FILE_(2, "1:1 2:2 3:3", "2:2", .mtime_ns = 9);
	const struct decide_policy newest = {.kind = DECIDE_NEWEST};
	struct context context = {.policy = &newest};

	(void)state;
	assert_result(ask_in(&context, young, "", old, ""), DECIDE_RENEW,
		FILE_(1, "1:1 2:2 3:3 4:4", "1:1", .lost = "4:4", .mtime_ns = 2, .adots = "1:1 2:2"));
	assert_int_equal(action_of(ask_in(&context, old, "", young, "")), DECIDE_WAIT);
	/* what removed `young` did not lose */
	assert_int_equal(action_of(ask_in(&context, young, "", beat_nothing, "")), DECIDE_WAIT);
	assert_result(ask_in(&context, beat_nothing, "", young, ""), DECIDE_RENEW,
		FILE_(2, "1:1 2:2 3:3 4:4", "2:2", .mtime_ns = 9, .adots = "1:1 2:2"));
	/* who only sends will not write it once more */
	context.taker_loses = true;
	assert_int_equal(action_of(ask_in(&context, old, "", young, "")), DECIDE_RENEW);
	assert_int_equal(action_of(ask_in(&context, young, "", beat_nothing, "")), DECIDE_DELETE);
	ASSERT_ACTION(DECIDE_DELETE, young, "", old, "");
	/* also where both have come to be the same */
	context.taker_loses = false;
	assert_result(ask_in(&context, same, "", young, ""), DECIDE_RENEW,
		FILE_(1, "1:1 2:2 3:3 4:4", "2:2", .lost = "3:3", .mtime_ns = 2, .adots = "1:1 2:2", .mdots = "1:1 2:2"));
	assert_int_equal(action_of(ask_in(&context, young, "", same, "")), DECIDE_WAIT);
}

/* What the peer's vector says beyond K is noted: third parties are heard before K is joined. */
static void test_vectors_are_noted(void **state)
{
	(void)state;
	assert_result(ask(TOMBSTONE_("1:3", "1:3"), "1:3", FILE_(1, "1:2 2:5", "1:2"), ""), DECIDE_MERGE,
		TOMBSTONE_("1:3 2:5", "1:3"));
	ASSERT_ACTION(DECIDE_NONE, TOMBSTONE_("1:3", "1:3"), "1:3 2:5", FILE_(1, "1:2 2:5", "1:2"), "");
	assert_result(ask(FILE_(2, "1:3", "1:3"), "1:3", FILE_(1, "1:2 2:5", "1:2"), ""), DECIDE_MERGE,
		FILE_(2, "1:3 2:5", "1:3"));
	ASSERT_ACTION(DECIDE_NONE, FILE_(2, "1:3", "1:3"), "1:3 2:5", FILE_(1, "1:2 2:5", "1:2"), "");
}

/* A dot falls to a deletion that saw it, whatever else wrote the same state, or won against it. */
static void test_each_dot_falls_by_itself(void **state)
{
	const struct spec *two = FILE_(1, "1:1 2:1", "1:1 2:1");
	const struct spec *first_gone =
		FILE_(1, "1:1 2:1 3:2", "2:1", .adots = "1:1 2:1", .mdots = "1:1 2:1");
	const struct spec *won = FILE_(2, "1:1 2:2", "2:2", .lost = "1:1");

	(void)state;
	/* one content written twice; each was deleted by someone who saw only that one */
	assert_result(ask(two, "", TOMBSTONE_("1:1 3:2", "3:2"), ""), DECIDE_MERGE, first_gone);
	assert_result(ask(TOMBSTONE_("1:1 3:2", "3:2"), "", two, ""), DECIDE_TAKE, first_gone);
	assert_result(ask(first_gone, "", TOMBSTONE_("2:1 4:2", "4:2"), ""), DECIDE_TAKE,
		TOMBSTONE_("1:1 2:1 3:2 4:2", "4:2"));
	assert_result(ask(NULL, "1:1", two, ""), DECIDE_TAKE,
		FILE_(1, "1:1 2:1", "2:1", .adots = "1:1 2:1",
			.mdots = "1:1 2:1")); /* deleted and purged */
	assert_result(ask(two, "", first_gone, ""), DECIDE_MERGE, first_gone);
	/* each deletion met what the other one had seen */
	ASSERT_ACTION(DECIDE_DELETE, FILE_(1, "1:1 2:1 3:2", "2:1"), "",
		FILE_(1, "1:1 2:1 4:2", "1:1"), "");
	ASSERT_ACTION(DECIDE_DELETE, FILE_(1, "2:1", "2:1"), "1:1", FILE_(1, "1:1", "1:1"), "2:1");
	ASSERT_ACTION(DECIDE_MERGE, FILE_(1, "2:1", "2:1"), "1:1", FILE_(1, "1:1", "1:1"), "");
	/* what lost was deleted elsewhere: where it stands, and the winner is gone, it does not
	 * stay */
	assert_result(ask(won, "", TOMBSTONE_("1:1 3:2", "3:2"), ""), DECIDE_MERGE,
		FILE_(2, "1:1 2:2 3:2", "2:2"));
	ASSERT_ACTION(DECIDE_TAKE, won, "", FILE_(1, "1:1 2:2 4:3", "1:1"), "");
	ASSERT_ACTION(DECIDE_DELETE, FILE_(2, "1:1 2:2 3:2", "2:2"), "",
		FILE_(1, "1:1 2:2 4:3", "1:1"), "");
	/* and it is not named again by one who has not heard of that */
	assert_result(ask(won, "", FILE_(2, "1:1 2:2 3:2", "2:2"), ""), DECIDE_MERGE,
		FILE_(2, "1:1 2:2 3:2", "2:2"));
	/* what is still lost goes over to the winner's successor at those who take it */
	assert_result(ask(won, "", FILE_(3, "2:2 5:3", "5:3"), ""), DECIDE_TAKE,
		FILE_(3, "1:1 2:2 5:3", "5:3", .lost = "1:1", .adots = "5:3"));
}

static void test_one_dot_two_states(void **state)
{
	const struct spec *low = FILE_(1, "1:1", "1:1"), *high = FILE_(2, "1:1", "1:1");
	struct decide_result d = ask(low, "1:1", high, "1:1");

	(void)state;
	assert_true(d.same_dot);
	assert_result(
		d, DECIDE_ASIDE, FILE_(2, "1:1", "1:1")); /* its own dot is not among the lost */
	d = ask(high, "1:1", low, "1:1");
	assert_true(d.same_dot);
	assert_int_equal(action_of(d), DECIDE_WAIT);
	/* a tombstone that borrows the dot does not delete */
	ASSERT_ACTION(DECIDE_MERGE, low, "1:1", TOMBSTONE_("1:1 2:1", "1:1"), "1:1 2:1");
	ASSERT_ACTION(DECIDE_TAKE, TOMBSTONE_("1:1 2:1", "1:1"), "1:1 2:1", low, "1:1");
}

static void test_chmod_and_edit_both_stand(void **state)
{
	const struct spec *edited = FILE_(2, "1:1 2:2", "2:2", .adots = "1:1", .mtime_ns = 9);
	const struct spec *chmodded = FILE_(
		1, "1:1 3:2", "1:1", .mode = 0600, .adots = "3:2", .mdots = "1:1", .mtime_ns = 5);
	const struct spec *both =
		FILE_(2, "1:1 2:2 3:2", "2:2", .mode = 0600, .adots = "3:2", .mtime_ns = 9);
	struct decide_result d = ask(edited, "1:1 2:2", chmodded, "1:1 3:2");

	(void)state;
	assert_true(d.attributes_moved && !d.mtime_moved && !d.privileges_cleared);
	assert_result(d, DECIDE_MERGE, both);
	d = ask(chmodded, "1:1 3:2", edited, "1:1 2:2");
	assert_true(!d.attributes_moved && d.mtime_moved);
	assert_result(d, DECIDE_TAKE, both);
}

static void test_attributes_and_mtime_by_order(void **state)
{
	const struct spec *a = FILE_(
		1, "1:1 2:2", "1:1", .mode = 0600, .adots = "2:2", .mdots = "2:2", .mtime_ns = 7);
	const struct spec *b = FILE_(
		1, "1:1 3:3", "1:1", .mode = 0400, .adots = "3:3", .mdots = "1:1", .mtime_ns = 5);
	const struct spec *both = FILE_(1, "1:1 2:2 3:3", "1:1", .mode = 0400, .adots = "3:3",
		.mdots = "2:2", .mtime_ns = 7);
	struct decide_result d = ask(a, "", b, "");

	(void)state;
	assert_true(d.attributes_moved && !d.mtime_moved);
	assert_result(d, DECIDE_MERGE, both);
	d = ask(b, "", a, "");
	assert_true(!d.attributes_moved && d.mtime_moved);
	assert_result(d, DECIDE_MERGE, both);
}

static void test_privileges_follow_their_content(void **state)
{
	const struct spec *edited = FILE_(2, "1:1 2:2", "2:2", .adots = "1:1");
	const struct spec *setuid =
		FILE_(1, "1:1 3:2", "1:1", .mode = 04755, .adots = "3:2", .mdots = "1:1");
	const struct spec *cleared = FILE_(2, "1:1 2:2 3:2", "2:2", .mode = 0755, .adots = "3:2");
	const struct spec *reviewed = FILE_(2, "1:1 2:2 3:3", "2:2", .mode = 04755, .adots = "3:3");
	struct decide_result d = ask(edited, "1:1 2:2", setuid, "1:1 3:2");

	(void)state;
	assert_true(d.privileges_cleared);
	assert_result(d, DECIDE_MERGE, cleared);
	d = ask(setuid, "1:1 3:2", edited, "1:1 2:2");
	assert_true(d.privileges_cleared);
	assert_result(d, DECIDE_TAKE, cleared);
	/* set on this very content: it stays */
	d = ask(edited, "1:1 2:2", reviewed, "1:1 2:2 3:3");
	assert_false(d.privileges_cleared);
	assert_result(d, DECIDE_MERGE, reviewed);
	/* kept by the one who edited: it comes with the state */
	d = ask(setuid, "1:1 3:2", FILE_(3, "1:1 3:2 2:3", "2:3", .mode = 04755, .adots = "3:2"),
		"1:1 2:3 3:2");
	assert_false(d.privileges_cleared);
	assert_result(
		d, DECIDE_TAKE, FILE_(3, "1:1 2:3 3:2", "2:3", .mode = 04755, .adots = "3:2"));
	/* once cleared, the old record does not bring it back */
	ASSERT_ACTION(DECIDE_NONE, cleared, "1:1 2:2 3:2", setuid, "1:1 3:2");
}

static void test_attributes_come_with_another_kind(void **state)
{
	const struct spec *directory = DIRECTORY_("1:1 2:2", "2:2");
	const struct spec *chmodded =
		FILE_(1, "1:1 3:3", "1:1", .mode = 0600, .adots = "3:3", .mdots = "1:1");

	(void)state;
	assert_result(ask(directory, "1:1 2:2", chmodded, "1:1 3:3"), DECIDE_MERGE, DIRECTORY_("1:1 2:2 3:3", "2:2"));
	assert_result(ask(chmodded, "1:1 3:3", directory, "1:1 2:2"), DECIDE_TAKE,
		DIRECTORY_("1:1 2:2 3:3", "2:2"));
}

static void test_a_directorys_mtime_is_nothing(void **state)
{
	struct decide_result d;

	(void)state;
	ASSERT_ACTION(DECIDE_NONE, DIRECTORY_("1:1", "1:1", .mtime_ns = 5), "",
		DIRECTORY_("1:1", "1:1", .mtime_ns = 7), "");
	d = ask(DIRECTORY_("1:1", "1:1", .mtime_ns = 5), "",
		DIRECTORY_("2:1", "2:1", .mtime_ns = 7), "");
	assert_int_equal(d.record.mtime_ns, 5);
	assert_false(d.mtime_moved);
	assert_int_equal(action_of(d), DECIDE_MERGE);
}

static void test_policies(void **state)
{
	static const struct version_incarnation line[] = {
		{1, 0, 0, 10}, {2, 0, 0, 20}, {3, 0, 0, 30}};
	static const uint64_t prefer[] = {20, 10};
	const struct decide_policy newest = {.kind = DECIDE_NEWEST},
				   members = {DECIDE_PREFER, prefer, ARRAY_SIZE(prefer)};
	const struct spec *old = FILE_(1, "3:9", "3:9", .mtime_ns = 1),
			  *young = FILE_(2, "2:1", "2:1", .mtime_ns = 2);
	const struct spec *listed = FILE_(3, "1:5", "1:5", .mtime_ns = 2);
	struct context context = {.policy = &newest};
	struct version_lineage *l;

	(void)state;
	assert_int_equal(version_lineage_new(&l), 0);
	for (size_t i = 0; i < ARRAY_SIZE(line); i++)
		assert_int_equal(version_lineage_add(l, &line[i]), 0);
	assert_int_equal(action_of(ask_in(&context, young, "", old, "")), DECIDE_WAIT);
	assert_int_equal(action_of(ask_in(&context, old, "", young, "")), DECIDE_ASIDE);
	assert_int_equal(action_of(ask_in(&context, young, "", listed, "")),
		DECIDE_ASIDE); /* then the dots */
	assert_int_equal(action_of(ask_in(&context, listed, "", young, "")), DECIDE_WAIT);
	/* a directory's mtime differs between replicas: it must not order */
	assert_int_equal(action_of(ask_in(&context, DIRECTORY_("1:9", "1:9", .mtime_ns = 99), "",
				 young, "")),
		DECIDE_ASIDE);
	assert_int_equal(action_of(ask_in(&context, young, "",
				 DIRECTORY_("1:9", "1:9", .mtime_ns = 99), "")),
		DECIDE_WAIT);
	context = (struct context){.policy = &members, .lineage = l};
	assert_int_equal(action_of(ask_in(&context, young, "", listed, "")), DECIDE_WAIT);
	assert_int_equal(action_of(ask_in(&context, listed, "", young, "")), DECIDE_ASIDE);
	assert_int_equal(action_of(ask_in(&context, listed, "", old, "")),
		DECIDE_WAIT); /* 30 is not listed */
	assert_int_equal(action_of(ask_in(&context, old, "", listed, "")), DECIDE_ASIDE);
	version_lineage_free(l);
}

/* We are replica 10, who only takes, and undoes what it did itself. */
static void test_revert(void **state)
{
	static const struct version_incarnation line[] = {{1, 0, 0, 10}, {2, 0, 0, 20}, {3, 0, 0, 30}};
	struct context context = {.taker_loses = true, .revert = 10}, plain = {.taker_loses = true};
	const struct spec *base = FILE_(1, "2:1", "2:1"), *edit = FILE_(2, "2:1 1:2", "1:2");
	struct version_lineage *l;

	(void)state;
	assert_int_equal(version_lineage_new(&l), 0);
	for (size_t i = 0; i < ARRAY_SIZE(line); i++)
		assert_int_equal(version_lineage_add(l, &line[i]), 0);
	context.lineage = plain.lineage = l;
	/* created here; by another replica; deleted here, edited here, each of them left alone without revert */
	assert_int_equal(action_of(ask_in(&plain, FILE_(1, "1:2", "1:2"), "1:2", NULL, "")), DECIDE_NONE);
	assert_int_equal(action_of(ask_in(&context, FILE_(1, "1:2", "1:2"), "1:2", NULL, "")), DECIDE_DELETE);
	assert_int_equal(action_of(ask_in(&context, FILE_(1, "3:2", "3:2"), "3:2", NULL, "")), DECIDE_NONE);
	assert_int_equal(action_of(ask_in(&plain, TOMBSTONE_("2:1 1:2", "1:2"), "1:2 2:1", base, "2:1")), DECIDE_NONE);
	assert_result(ask_in(&context, TOMBSTONE_("2:1 1:2", "1:2"), "1:2 2:1", base, "2:1"), DECIDE_TAKE,
		FILE_(1, "2:1 1:2", "2:1"));
	assert_int_equal(action_of(ask_in(&plain, edit, "1:2 2:1", base, "2:1")), DECIDE_NONE);
	assert_result(ask_in(&context, edit, "1:2 2:1", base, "2:1"), DECIDE_TAKE,
		FILE_(1, "2:1 1:2", "2:1", .lost = "1:2", .adots = "1:2"));
	/* … and that is the end of it */
	assert_int_equal(action_of(ask_in(&context, FILE_(1, "2:1 1:2", "2:1", .lost = "1:2", .adots = "1:2"), "1:2 2:1", base, "2:1")),
		DECIDE_NONE);
	/* an edit here of what was deleted there; a conflict: to trash, not aside */
	assert_result(ask_in(&context, edit, "1:2 2:1", TOMBSTONE_("2:3", "2:3"), "2:3"), DECIDE_TAKE,
		TOMBSTONE_("2:3 1:2", "2:3"));
	assert_int_equal(action_of(ask_in(&plain, edit, "1:2 2:1", FILE_(3, "2:3", "2:3"), "2:3")), DECIDE_ASIDE);
	assert_result(ask_in(&context, edit, "1:2 2:1", FILE_(3, "2:3", "2:3"), "2:3"), DECIDE_TAKE,
		FILE_(3, "2:3 1:2", "2:3", .lost = "1:2", .adots = "1:2 2:3"));
	/* a chmod and a touch go without the content */
	assert_result(ask_in(&context, FILE_(1, "2:1 1:2", "2:1", .mode = 0600, .adots = "1:2", .mtime_ns = 7, .mdots = "1:2"),
			      "1:2 2:1", base, "2:1"),
		DECIDE_MERGE, FILE_(1, "2:1 1:2", "2:1"));
	/* one content, written at both, is nobody's change */
	assert_result(ask_in(&context, FILE_(1, "1:2", "1:2"), "1:2", base, "2:1"), DECIDE_MERGE,
		FILE_(1, "1:2 2:1", "1:2 2:1"));
	version_lineage_free(l);
}

static bool differs_after(const struct spec *ours, const struct spec *theirs)
{
	struct decide_result d = ask_in(&(struct context){.taker_loses = true}, ours, "1:9 2:1", theirs, "2:9");
	bool differs = d.differs;

	decide_result_deinit(&d);
	return differs;
}

static void test_differs(void **state)
{
	const struct spec *base = FILE_(1, "2:1", "2:1");

	(void)state;
	assert_true(differs_after(FILE_(1, "1:2", "1:2"), NULL));
	assert_false(differs_after(FILE_(1, "2:1", "2:1"), NULL)); /* it goes */
	assert_false(differs_after(TOMBSTONE_("1:2", "1:2"), NULL));
	assert_true(differs_after(TOMBSTONE_("2:1 1:2", "1:2"), base));
	assert_true(differs_after(FILE_(2, "2:1 1:2", "1:2"), base));
	assert_true(differs_after(FILE_(1, "2:1 1:2", "2:1", .mtime_ns = 7, .mdots = "1:2"), base));
	assert_false(differs_after(FILE_(1, "1:2 2:1", "1:2 2:1"), base)); /* the record alone */
	assert_false(differs_after(base, FILE_(3, "2:1 2:3", "2:3")));	   /* taken */
}

static void test_lineage_implies(void **state)
{
	static const struct version_incarnation line[] = {{1, 0, 0, 10}, {2, 1, 3, 10}};
	struct context context = {0};
	struct version_lineage *l;

	(void)state;
	assert_int_equal(version_lineage_new(&l), 0);
	for (size_t i = 0; i < ARRAY_SIZE(line); i++)
		assert_int_equal(version_lineage_add(l, &line[i]), 0);
	context.lineage = l;
	assert_int_equal(
		action_of(ask_in(&context, NULL, "2:9", FILE_(1, "1:3", "1:3"), "")), DECIDE_NONE);
	assert_int_equal(
		action_of(ask_in(&context, NULL, "2:9", FILE_(1, "1:4", "1:4"), "")), DECIDE_TAKE);
	assert_result(ask_in(&context, FILE_(1, "1:3", "1:3"), "", FILE_(2, "2:4", "2:4"), ""),
		DECIDE_TAKE, FILE_(2, "2:4", "2:4")); /* vv in normal form */
	version_lineage_free(l);
}

static void test_target_is_carried(void **state)
{
	struct record t = {.live = true, .kind = RECORD_SYMLINK, .mode = 0777};
	struct version_vector k = {0};
	struct decide_result d = {0};
	struct decide_input in = {.theirs = &t, .our_k = &k, .their_k = &k};

	(void)state;
	t.target = strdup("../x");
	raise_all(&t.vv, "1:1");
	add_dots(&t.dots, "1:1");
	add_dots(&t.adots, "1:1");
	add_dots(&t.mdots, "1:1");
	assert_int_equal(decide(&in, &d), 0);
	assert_int_equal(d.action, DECIDE_TAKE);
	assert_string_equal(d.record.target, "../x");
	assert_ptr_not_equal(d.record.target, t.target);
	decide_result_deinit(&d);
	record_deinit(&t);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_absent),
		cmocka_unit_test(test_one_side_saw),
		cmocka_unit_test(test_same_state),
		cmocka_unit_test(test_edit_beats_deletion),
		cmocka_unit_test(test_conflict),
		cmocka_unit_test(test_resolutions),
		cmocka_unit_test(test_circles),
		cmocka_unit_test(test_vectors_are_noted),
		cmocka_unit_test(test_each_dot_falls_by_itself),
		cmocka_unit_test(test_one_dot_two_states),
		cmocka_unit_test(test_chmod_and_edit_both_stand),
		cmocka_unit_test(test_attributes_and_mtime_by_order),
		cmocka_unit_test(test_privileges_follow_their_content),
		cmocka_unit_test(test_attributes_come_with_another_kind),
		cmocka_unit_test(test_a_directorys_mtime_is_nothing),
		cmocka_unit_test(test_policies),
		cmocka_unit_test(test_revert),
		cmocka_unit_test(test_differs),
		cmocka_unit_test(test_lineage_implies),
		cmocka_unit_test(test_target_is_carried),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
