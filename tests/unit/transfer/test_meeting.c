/* Whose folder id stands: both sides come to matching answers, and to one id. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "transfer/meeting.h"

struct side {
	struct store_folder folder;
	bool sends, takes;
};

static enum meeting decide(const struct side *a, const struct side *b, bool kin)
{
	return meeting_decide(&(struct meeting_side){&a->folder, a->sends, a->takes},
		&(struct meeting_side){&b->folder, b->sends, b->takes}, kin);
}

/* Two sides in any states: ids 1, 2 or 3 and what each of them has noted. */
static struct side side_of(unsigned n)
{
	struct side s = {.folder = {.id = 1 + n % 3, .standing = (enum store_standing)(n / 3 % 3), .algorithm = n / 9 % 2 ? HASH_BLAKE2B : HASH_SHA256}};

	s.sends = n / 18 % 2;
	s.takes = n / 36 % 2;
	for (unsigned id = 1; id <= 3; id++)
		if (n / 72 >> (id - 1) & 1)
			s.folder.former[s.folder.n_former++] = id;
	return s;
}

#define SIDES (72 * 8)

static void note(struct store_folder *f, uint64_t id)
{
	if (!store_folder_was(f, id))
		f->former[f->n_former++] = id;
}

/* As a session does it. True if there was something to do. */
static bool act(struct side *a, const struct side *b, bool kin)
{
	switch (decide(a, b, kin)) {
	case MEETING_MOVE:
		if (a->folder.standing != STORE_NEW) {
			assert_true(store_folder_was(&b->folder, a->folder.id));
			note(&a->folder, a->folder.id);
		}
		a->folder.id = b->folder.id;
		a->folder.algorithm = b->folder.algorithm;
		a->folder.standing = b->folder.standing;
		assert_true(a->folder.standing != STORE_NEW);
		return true;
	case MEETING_OFFER:
		a->folder.standing = STORE_OFFERED;
		return true;
	case MEETING_NOTE:
		note(&a->folder, b->folder.id);
		return true;
	default:
		return false;
	}
}

static bool acts(enum meeting m)
{
	return m == MEETING_MOVE || m == MEETING_OFFER || m == MEETING_NOTE;
}

static bool waits(enum meeting m)
{
	return m == MEETING_STAY || m == MEETING_WAIT;
}

static void test_two_sides_agree(void **state)
{
	(void)state;
	for (unsigned n = 0; n < SIDES * SIDES * 2; n++) {
		struct side a = side_of(n % SIDES), b = side_of(n / SIDES % SIDES);
		uint64_t was_a = a.folder.id, was_b = b.folder.id;
		bool kin = n >= SIDES * SIDES || a.folder.standing != STORE_JOINED || b.folder.standing != STORE_JOINED;
		enum meeting m = decide(&a, &b, kin), other = decide(&b, &a, kin);

		if (m != other) /* one of them has something to do */
			assert_true((acts(m) && waits(other)) || (waits(m) && acts(other)));
		else
			assert_false(acts(m) || waits(m));
		if (m == MEETING_REFUSE || m == MEETING_HASH)
			continue;
		for (int steps = 0; decide(&a, &b, kin) != MEETING_SAME; steps++) {
			assert_true(steps < 3);
			assert_true(act(&a, &b, kin) || act(&b, &a, kin));
		}
		assert_true(a.folder.id == was_a || a.folder.id == was_b);
	}
}

static struct side joined(uint64_t id)
{
	return (struct side){.folder = {.id = id, .standing = STORE_JOINED, .algorithm = HASH_SHA256}, .sends = true, .takes = true};
}

static void test_different_folders_are_refused(void **state)
{
	struct side a = joined(1), b = joined(2);

	(void)state;
	note(&a.folder, 3);
	note(&b.folder, 3);
	assert_int_equal(decide(&a, &b, false), MEETING_REFUSE);
	a.folder.left = 1; /* only one of them held it */
	assert_int_equal(decide(&a, &b, false), MEETING_REFUSE);
	b.folder.left = 1;
	assert_int_equal(decide(&a, &b, false), MEETING_NOTE);
}

static void test_who_is_joined_follows(void **state)
{
	struct side a = joined(1), b = joined(2);

	(void)state;
	note(&b.folder, 1); /* even to the greater id */
	assert_int_equal(decide(&a, &b, false), MEETING_MOVE);
	note(&a.folder, 2); /* each to the other's: the smaller stands */
	assert_int_equal(decide(&a, &b, false), MEETING_STAY);
	b = joined(2);
	note(&b.folder, 1);
	a = joined(1);
	a.takes = false; /* not on the word of who may not write here */
	assert_int_equal(decide(&a, &b, false), MEETING_REFUSE);
	a.takes = true;
	b.sends = false;
	assert_int_equal(decide(&a, &b, false), MEETING_REFUSE);
	b.sends = true;
	b.folder.algorithm = HASH_BLAKE2B;
	assert_int_equal(decide(&a, &b, false), MEETING_REFUSE);
	assert_int_equal(decide(&a, &b, true), MEETING_REFUSE);
}

static void test_kin_become_one(void **state)
{
	struct side a = joined(1), b = joined(2);

	(void)state;
	assert_int_equal(decide(&a, &b, true), MEETING_NOTE);
	assert_int_equal(decide(&b, &a, true), MEETING_WAIT);
	note(&a.folder, 2);
	assert_int_equal(decide(&b, &a, true), MEETING_MOVE);
}

/* Each takes from the next one only, and all meet in the same moment, again and again. */
static void test_ring_of_takers(void **state)
{
	struct side ring[3], after[3];

	(void)state;
	for (unsigned n = 0; n < 27; n++) {
		unsigned rounds = 0;

		for (unsigned i = 0; i < 3; i++) {
			ring[i] = joined(1 + (i == 0 ? n : i == 1 ? n / 3 : n / 9) % 3);
			note(&ring[i].folder, 1), note(&ring[i].folder, 2), note(&ring[i].folder, 3);
		}
		while (ring[0].folder.id != ring[1].folder.id || ring[1].folder.id != ring[2].folder.id) {
			assert_true(rounds++ < 6);
			memcpy(after, ring, sizeof(ring));
			for (unsigned i = 0; i < 3; i++) {
				struct side taker = ring[i], source = ring[(i + 1) % 3];

				taker.sends = source.takes = false;
				while (decide(&taker, &source, false) != MEETING_SAME)
					assert_true(act(&taker, &source, false) || act(&source, &taker, false));
				if (taker.folder.id != ring[i].folder.id)
					after[i].folder.id = taker.folder.id;
				if (source.folder.id != ring[(i + 1) % 3].folder.id)
					after[(i + 1) % 3].folder.id = source.folder.id;
			}
			memcpy(ring, after, sizeof(ring));
		}
	}
}

static void test_rank(void **state)
{
	struct side a = joined(1), b = joined(2);

	(void)state;
	a.folder.standing = STORE_NEW;
	assert_int_equal(decide(&a, &b, true), MEETING_MOVE); /* nobody came to 1 through a */
	a.folder.standing = STORE_OFFERED;
	assert_int_equal(decide(&a, &b, true), MEETING_WAIT);
	b.folder.standing = STORE_NEW;
	assert_int_equal(decide(&a, &b, true), MEETING_STAY);
	a.folder.standing = STORE_NEW;
	assert_int_equal(decide(&a, &b, true), MEETING_OFFER);
	assert_int_equal(decide(&b, &a, true), MEETING_WAIT);
	a.folder.id = b.folder.id;
	assert_int_equal(decide(&a, &b, true), MEETING_SAME);
	a.folder.algorithm = HASH_BLAKE2B;
	assert_int_equal(decide(&a, &b, true), MEETING_HASH);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_two_sides_agree),
		cmocka_unit_test(test_different_folders_are_refused),
		cmocka_unit_test(test_who_is_joined_follows),
		cmocka_unit_test(test_kin_become_one),
		cmocka_unit_test(test_ring_of_takers),
		cmocka_unit_test(test_rank),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
