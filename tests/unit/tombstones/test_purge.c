/* tests/unit/tombstones/test_purge.c — when a tombstone may go. */
#include "tests/unit/tombstones/replica_help.h"

#include "base/clock.h"
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
	return purge_allowed(
		&w->tombstone, w->since_ns, &w->k, &w->members, SELF, &w->policy, NULL);
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

/* --- a pass over a replica --- */

#define MANY 1201 /* more than one batch; half of them are deleted */

static void put_row(struct replica_txn *t, const char *path, bool deleted)
{
	struct row row = {.since_ns = NOW - DAY};
	struct record old = {0};

	row.record = (struct record){.live = true, .kind = RECORD_DIRECTORY, .mode = 0755};
	assert_int_equal(replica_event(t, REPLICA_EVENT_STATE, NULL, &row.record), 0);
	if (deleted) {
		assert_int_equal(record_copy(&old, &row.record), 0);
		assert_int_equal(replica_event(t, REPLICA_EVENT_DELETE, &old, &row.record), 0);
	}
	assert_int_equal(index_put(t->index, path, &row), 0);
	record_deinit(&old);
	row_deinit(&row);
}

static struct index_counts counts_of(struct replica *r)
{
	struct index_counts counts = {0};
	struct index_txn *t;

	assert_int_equal(index_begin_read(replica_index(r), &t), 0);
	assert_int_equal(index_counts(t, &counts), 0);
	index_abort(t);
	return counts;
}

static uint64_t purge_with(struct replica *r, int64_t grace_ns)
{
	struct purge_policy policy = {.grace_ns = grace_ns, .now_ns = NOW};
	uint64_t purged = 12345;

	assert_int_equal(purge_run(r, &policy, &purged), 0);
	return purged;
}

static void test_pass(void **state)
{
	struct replica_txn t = {0};
	struct place p = {0};
	char path[16];

	(void)state;
	place_make(&p);
	place_open(&p);
	assert_int_equal(purge_with(p.replica, 0), 0);
	replica_lock(p.replica);
	assert_int_equal(replica_begin(p.replica, &t), 0);
	for (int i = 0; i < MANY; i++) {
		snprintf(path, sizeof(path), "f%05d", i);
		put_row(&t, path, i % 2 || i > MANY - 600);
	}
	assert_int_equal(knowledge_forget(&t.knowledge, "f00001"), 0);
	t.knowledge_dirty = true;
	assert_int_equal(replica_commit(&t), 0);
	replica_unlock(p.replica);

	assert_int_equal(counts_of(p.replica).tombstones, 900);
	assert_int_equal(purge_with(p.replica, 2 * DAY), 0);
	assert_int_equal(purge_with(p.replica, DAY), 899); /* not the one that K does not cover */
	assert_int_equal(counts_of(p.replica).tombstones, 1);
	assert_int_equal(counts_of(p.replica).live, MANY - 900);
	assert_true(counts_of(p.replica).purged_seq > 0);
	assert_int_equal(purge_with(p.replica, DAY), 0);
	place_remove(&p);
}

/* A deleted directory that is there for what is below it: its row says that it is ours to remove. */
static void test_implied(void **state)
{
	struct replica_txn t = {0};
	struct place p = {0};
	struct row row = {0};

	(void)state;
	place_make(&p);
	place_open(&p);
	replica_lock(p.replica);
	assert_int_equal(replica_begin(p.replica, &t), 0);
	put_row(&t, "d", true);
	put_row(&t, "d/child", false);
	assert_int_equal(index_get(t.index, "d", &row), 0);
	row.place = ROW_IMPLIED;
	row.stamp.ino = 4711;
	assert_int_equal(index_restamp(t.index, "d", &row), 0);
	row_deinit(&row);
	assert_int_equal(replica_commit(&t), 0);
	replica_unlock(p.replica);

	assert_int_equal(purge_with(p.replica, DAY), 1);
	assert_int_equal(counts_of(p.replica).tombstones, 0);
	assert_true(counts_of(p.replica).purged_seq > 0);
	assert_int_equal(index_begin_read(replica_index(p.replica), &t.index), 0);
	assert_int_equal(index_get(t.index, "d", &row), 0);
	assert_int_equal(row.place, ROW_IMPLIED);
	assert_int_equal(row.stamp.ino, 4711);
	assert_false(row_has_record(&row));
	row_deinit(&row);
	index_abort(t.index);
	assert_int_equal(purge_with(p.replica, DAY), 0);
	place_remove(&p);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_allowed),
		cmocka_unit_test(test_knowledge),
		cmocka_unit_test(test_grace),
		cmocka_unit_test(test_members),
		cmocka_unit_test(test_pass),
		cmocka_unit_test(test_implied),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
