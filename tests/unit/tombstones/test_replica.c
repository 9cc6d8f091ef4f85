/* tests/unit/tombstones/test_replica.c — counting events, keeping counters, incarnations, suspicion. */
#include <pthread.h>

#include "tests/unit/tombstones/replica_help.h"

#include "base/random.h"

static int setup(void **state)
{
	struct place *p = calloc(1, sizeof(*p));

	place_make(p);
	place_open(p);
	*state = p;
	return 0;
}

static int teardown(void **state)
{
	place_remove(*state);
	free(*state);
	return 0;
}

static struct record a_file(uint8_t content, uint16_t mode, int64_t mtime_ns)
{
	struct record r = {.live = true, .kind = RECORD_FILE, .mode = mode, .mtime_ns = mtime_ns};

	r.content.root.bytes[0] = content;
	r.content.size = 1;
	r.content.chunk_bits = CHUNK_BITS_MIN;
	return r;
}

static struct record a_directory(void)
{
	return (struct record){.live = true, .kind = RECORD_DIRECTORY, .mode = 0755};
}

static void begin(struct place *p, struct replica_txn *t)
{
	replica_lock(p->replica);
	assert_int_equal(replica_begin(p->replica, t), 0);
}

static void commit(struct place *p, struct replica_txn *t)
{
	assert_int_equal(replica_commit(t), 0);
	replica_unlock(p->replica);
}

static struct version_dot event(struct place *p, struct record *r)
{
	struct replica_txn t;

	begin(p, &t);
	assert_int_equal(replica_event(&t, REPLICA_EVENT_STATE, NULL, r), 0);
	assert_int_equal(t.events, 1);
	commit(p, &t);
	return replica_own(p->replica);
}

static struct knowledge knowledge_now(struct place *p)
{
	struct index_txn *t = NULL;
	struct knowledge k = {0};

	assert_int_equal(index_begin_read(replica_index(p->replica), &t), 0);
	assert_int_equal(replica_knowledge_read(t, &k), 0);
	index_abort(t);
	return k;
}

static void assert_one_dot(const struct version_dots *d, struct version_dot dot)
{
	assert_int_equal(d->n, 1);
	assert_int_equal(d->v[0].inc, dot.inc);
	assert_int_equal(d->v[0].counter, dot.counter);
}

static void test_first_event(void **state)
{
	struct place *p = *state;
	struct record r = a_file(1, 0644, 5);
	struct version_dot dot;
	const struct version_incarnation *i;
	struct knowledge k;

	assert_int_equal(replica_own(p->replica).inc, 0);
	dot = event(p, &r);
	assert_int_not_equal(dot.inc, 0);
	assert_int_equal(dot.counter, 1);
	assert_one_dot(&r.dots, dot);
	assert_one_dot(&r.adots, dot);
	assert_one_dot(&r.mdots, dot);
	assert_int_equal(r.lost.n, 0);
	assert_true(version_vector_has(&r.vv, dot, NULL));
	i = version_lineage_find(replica_lineage(p->replica), dot.inc);
	assert_non_null(i);
	assert_int_equal(i->parent, 0);
	assert_int_equal(i->replica, store_replica_id(replica_store(p->replica)));
	k = knowledge_now(p);
	assert_true(version_vector_has(&k.k, dot, NULL));
	knowledge_deinit(&k);
	record_deinit(&r);
}

static void test_registers(void **state)
{
	struct place *p = *state;
	struct record first = a_file(1, 0644, 5), r = {0};
	struct version_dot one = event(p, &first), two;
	struct replica_txn t;

	assert_int_equal(version_dots_add(&first.lost, (struct version_dot){99, 9}), 0);

	/* content only */
	begin(p, &t);
	r = a_file(2, 0644, 5);
	assert_int_equal(replica_event(&t, REPLICA_EVENT_STATE, &first, &r), 0);
	two = t.own;
	assert_one_dot(&r.dots, two);
	assert_one_dot(&r.adots, one);
	assert_one_dot(&r.mdots, one);
	assert_int_equal(r.lost.n, 0);
	record_deinit(&r);

	/* content, mode and mtime */
	r = a_file(2, 0600, 6);
	assert_int_equal(replica_event(&t, REPLICA_EVENT_STATE, &first, &r), 0);
	assert_one_dot(&r.adots, t.own);
	assert_one_dot(&r.mdots, t.own);
	record_deinit(&r);

	/* a chmod */
	r = a_file(1, 0600, 5);
	assert_int_equal(replica_event(&t, REPLICA_EVENT_ATTRIBUTES, &first, &r), 0);
	assert_one_dot(&r.dots, one);
	assert_one_dot(&r.adots, t.own);
	assert_one_dot(&r.mdots, one);
	assert_int_equal(r.lost.n, 1);
	record_deinit(&r);

	/* a touch, both */
	r = a_file(1, 0644, 6);
	assert_int_equal(replica_event(&t, REPLICA_EVENT_MTIME, &first, &r), 0);
	assert_one_dot(&r.adots, one);
	assert_one_dot(&r.mdots, t.own);
	record_deinit(&r);
	r = a_file(1, 0600, 6);
	assert_int_equal(replica_event(&t, REPLICA_EVENT_BOTH, &first, &r), 0);
	assert_one_dot(&r.dots, one);
	assert_one_dot(&r.adots, t.own);
	assert_one_dot(&r.mdots, t.own);
	record_deinit(&r);

	/* another kind: attributes come with it; a directory has no mtime */
	r = a_directory();
	r.mode = 0644;
	assert_int_equal(replica_event(&t, REPLICA_EVENT_STATE, &first, &r), 0);
	assert_one_dot(&r.adots, t.own);
	assert_int_equal(r.mdots.n, 0);
	record_deinit(&r);

	/* deletion, and creation after it */
	r = a_file(1, 0644, 5);
	assert_int_equal(replica_event(&t, REPLICA_EVENT_DELETE, &first, &r), 0);
	assert_false(r.live);
	assert_int_equal(r.kind | r.mode | r.mtime_ns | (int)r.content.size, 0);
	assert_one_dot(&r.dots, t.own);
	assert_int_equal(r.adots.n + r.mdots.n + r.lost.n, 0);
	{
		struct record again = a_file(1, 0644, 5);

		assert_int_equal(replica_event(&t, REPLICA_EVENT_STATE, &r, &again), 0);
		assert_one_dot(&again.adots, t.own);
		assert_one_dot(&again.mdots, t.own);
		assert_true(version_vector_leq(&r.vv, &again.vv, replica_lineage(p->replica)));
		record_deinit(&again);
	}
	record_deinit(&r);
	record_deinit(&first);
	assert_int_equal(t.events, 8);
	commit(p, &t);
}

/* A new event's counter exceeds all that its version descends from. */
static void test_lamport(void **state)
{
	struct place *p = *state;
	struct record old = a_file(1, 0644, 5), r = a_file(2, 0644, 6);
	struct version_incarnation foreign = {.inc = 77, .replica = 7};
	struct replica_txn t;

	begin(p, &t);
	assert_int_equal(replica_learn_lineage(&t, &foreign, 1), 0);
	assert_int_equal(version_dots_add(&old.dots, (struct version_dot){77, 1000}), 0);
	assert_int_equal(version_vector_raise(&old.vv, (struct version_dot){77, 1000}, NULL), 0);
	assert_int_equal(replica_event(&t, REPLICA_EVENT_STATE, &old, &r), 0);
	assert_int_equal(t.own.counter, 1001);
	assert_int_equal(version_vector_get(&r.vv, 77), 1000);
	record_deinit(&r);
	commit(p, &t);

	/* kept over a restart */
	place_close(p);
	place_open(p);
	r = a_file(3, 0644, 6);
	assert_int_equal(event(p, &r).counter, 1002);
	record_deinit(&r);

	/* and bounded: what is as given stays as given */
	begin(p, &t);
	version_vector_deinit(&old.vv);
	assert_int_equal(version_vector_raise(&old.vv, (struct version_dot){77, VERSION_COUNTER_MAX}, NULL), 0);
	r = a_file(3, 0644, 6);
	assert_int_equal(replica_event(&t, REPLICA_EVENT_STATE, &old, &r), -EOVERFLOW);
	assert_int_equal(r.dots.n, 0);
	assert_int_equal(t.events, 0);
	replica_abort(&t);
	replica_unlock(p->replica);
	record_deinit(&old);
}

static void test_restart_is_a_new_incarnation(void **state)
{
	struct place *p = *state;
	struct record r = a_file(1, 0644, 5), s = a_file(2, 0644, 5);
	struct version_dot one = event(p, &r), two;
	const struct version_incarnation *i;
	struct knowledge k;

	place_close(p);
	place_open(p);
	assert_int_equal(replica_own(p->replica).inc, 0);
	two = event(p, &s);
	assert_int_not_equal(two.inc, one.inc);
	assert_int_equal(two.counter, 2);
	i = version_lineage_find(replica_lineage(p->replica), two.inc);
	assert_int_equal(i->parent, one.inc);
	assert_int_equal(i->from, one.counter);
	k = knowledge_now(p);
	assert_int_equal(k.k.n, 1); /* normal form: the first is implied */
	assert_true(version_vector_has(&k.k, one, replica_lineage(p->replica)));
	knowledge_deinit(&k);

	/* an ended one likewise; a start without events makes none */
	replica_end_incarnation(p->replica);
	assert_int_equal(replica_own(p->replica).inc, 0);
	place_close(p);
	place_open(p);
	assert_int_equal(version_lineage_count(replica_lineage(p->replica)), 2);
	record_deinit(&r);
	record_deinit(&s);
}

/* Memory changes only with a commit; what an aborted transaction drew is used again, and reaches the index. */
static void test_abort(void **state)
{
	struct place *p = *state;
	struct version_incarnation foreign = {.inc = 77, .replica = 7};
	struct record r = a_file(1, 0644, 5);
	struct version_dot drawn;
	struct replica_txn t;

	begin(p, &t);
	assert_int_equal(replica_learn_lineage(&t, &foreign, 1), 0);
	assert_int_equal(replica_event(&t, REPLICA_EVENT_STATE, NULL, &r), 0);
	drawn = t.own;
	replica_abort(&t);
	replica_abort(&t);
	replica_unlock(p->replica);
	record_deinit(&r);
	assert_int_equal(replica_own(p->replica).inc, 0);

	r = a_file(1, 0644, 5);
	assert_int_equal(event(p, &r).inc, drawn.inc);
	assert_int_equal(replica_own(p->replica).counter, 1);
	record_deinit(&r);
	place_close(p);
	place_open(p);
	assert_int_equal(version_lineage_count(replica_lineage(p->replica)), 2);
	assert_non_null(version_lineage_find(replica_lineage(p->replica), 77));
	assert_non_null(version_lineage_find(replica_lineage(p->replica), drawn.inc));
}

/* An incarnation that ends while a transaction uses it stays ended. */
static void test_end_within(void **state)
{
	struct place *p = *state;
	struct record r = a_file(1, 0644, 5), s = a_file(2, 0644, 5), u = a_file(3, 0644, 5);
	struct version_dot one = event(p, &r);
	struct replica_txn t;

	begin(p, &t);
	assert_int_equal(replica_event(&t, REPLICA_EVENT_STATE, NULL, &s), 0);
	replica_end_incarnation(p->replica);
	commit(p, &t);
	assert_int_equal(replica_own(p->replica).inc, 0);
	assert_int_not_equal(event(p, &u).inc, one.inc);
	assert_int_equal(replica_own(p->replica).counter, 3);
	assert_int_equal(version_lineage_find(replica_lineage(p->replica), replica_own(p->replica).inc)->from, 2);
	record_deinit(&r);
	record_deinit(&s);
	record_deinit(&u);
}

static void test_lineage_of_peers(void **state)
{
	struct place *p = *state;
	struct record r = a_file(1, 0644, 5), s = a_file(2, 0644, 5);
	struct version_dot own = event(p, &r);
	struct version_incarnation line[] = {{.inc = 5, .replica = 9}, {.inc = 6, .parent = 5, .from = 3, .replica = 9}};
	struct version_incarnation other = {.inc = 6, .parent = 5, .from = 4, .replica = 9};
	struct version_incarnation orphan = {.inc = 8, .parent = 7, .from = 4, .replica = 9};
	struct version_incarnation past = {
		.inc = 10, .parent = own.inc, .from = own.counter, .replica = store_replica_id(replica_store(p->replica))};
	struct version_incarnation above = {.inc = 11, .parent = own.inc, .from = own.counter + 1, .replica = 9};
	struct replica_txn t;

	begin(p, &t);
	assert_int_equal(replica_learn_lineage(&t, line, 2), 0);
	assert_int_equal(replica_learn_lineage(&t, line, 2), 0);
	assert_int_equal(replica_learn_lineage(&t, &other, 1), -EBADMSG);
	assert_int_equal(replica_learn_lineage(&t, &orphan, 1), -EBADMSG);
	assert_int_equal(replica_learn_lineage(&t, &past, 1), 0);
	commit(p, &t);
	assert_int_equal(replica_own(p->replica).inc, own.inc);

	/* someone says that our line was left above what we counted: what we count next must not be implied */
	begin(p, &t);
	assert_int_equal(replica_learn_lineage(&t, &above, 1), 0);
	assert_int_equal(replica_event(&t, REPLICA_EVENT_STATE, NULL, &s), 0);
	assert_int_not_equal(t.own.inc, own.inc);
	assert_false(version_lineage_implies(replica_lineage(p->replica), 11, t.own));
	commit(p, &t);
	record_deinit(&r);
	record_deinit(&s);
	place_close(p);
	place_open(p);
	assert_int_equal(version_lineage_count(replica_lineage(p->replica)), 6);
}

static void test_members(void **state)
{
	struct place *p = *state;
	struct members m = {0};
	struct member *member;
	struct index_txn *r = NULL;
	struct replica_txn t;

	begin(p, &t);
	assert_int_equal(replica_members_read(t.index, &m), 0);
	assert_int_equal(m.n, 0);
	assert_int_equal(members_add(&m, 42, &member), 0);
	assert_int_equal(replica_members_write(&t, &m), 0);
	commit(p, &t);
	members_deinit(&m);
	assert_int_equal(index_begin_read(replica_index(p->replica), &r), 0);
	assert_int_equal(replica_members_read(r, &m), 0);
	index_abort(r);
	assert_non_null(members_find(&m, 42));
	members_deinit(&m);
}

/* K of another replica id is not ours: the store became a copy, and the opening was cut short. */
static void test_copy_is_suspect(void **state)
{
	struct place *p = *state;
	struct record r = a_file(1, 0644, 5), s = a_file(2, 0644, 5);
	struct version_dot one = event(p, &r), two;
	struct replica_txn t;
	struct knowledge k;

	assert_false(replica_suspect(p->replica));
	assert_int_equal(store_renew_replica(replica_store(p->replica)), 0);
	place_close(p);
	place_open(p);
	assert_true(replica_suspect(p->replica));
	k = knowledge_now(p);
	assert_int_equal(k.k.n, 0);
	knowledge_deinit(&k);

	/* no parent: or else K would contain the copied line after the first event */
	two = event(p, &s);
	assert_int_equal(two.counter, one.counter + 1);
	assert_int_equal(version_lineage_find(replica_lineage(p->replica), two.inc)->parent, 0);
	k = knowledge_now(p);
	assert_false(version_vector_has(&k.k, one, replica_lineage(p->replica)));
	knowledge_deinit(&k);

	place_close(p);
	place_open(p);
	assert_true(replica_suspect(p->replica));
	replica_set_suspect(p->replica, false);
	begin(p, &t);
	commit(p, &t);
	place_close(p);
	place_open(p);
	assert_false(replica_suspect(p->replica));
	record_deinit(&r);
	record_deinit(&s);
}

/* Drawing a new id while running, as clones that meet do, is no copy. */
static void test_renewed_is_not_suspect(void **state)
{
	struct place *p = *state;
	struct record r = a_file(1, 0644, 5), s = a_file(2, 0644, 5);
	struct version_dot one = event(p, &r);
	struct knowledge k;

	assert_int_equal(store_renew_replica(replica_store(p->replica)), 0);
	replica_end_incarnation(p->replica);
	event(p, &s);
	place_close(p);
	place_open(p);
	assert_false(replica_suspect(p->replica));
	k = knowledge_now(p);
	assert_true(version_vector_has(&k.k, one, replica_lineage(p->replica)));
	knowledge_deinit(&k);
	record_deinit(&r);
	record_deinit(&s);
}

static void test_damaged_counters(void **state)
{
	static const uint8_t bad[][4] = {{1, 2, 3, 4}, {2, 0, 0, 0}};
	struct place *p = *state;
	struct store_options options = {0};
	struct store *store = NULL;
	struct replica *opened = NULL;

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		struct index_txn *w = NULL;

		assert_int_equal(index_begin_write(replica_index(p->replica), &w), 0);
		assert_int_equal(index_meta_put(w, INDEX_META_COUNTERS, bad[i], sizeof(bad[i])), 0);
		assert_int_equal(index_commit(&w), 0);
		place_close(p);
		assert_int_equal(store_open(&store, p->root, &options), 0);
		assert_int_equal(replica_open(&opened, store), i ? -EPROTONOSUPPORT : -EBADMSG);
		assert_null(opened);
		/* put right for the next round */
		assert_int_equal(store_open(&store, p->root, &options), 0);
		assert_int_equal(index_begin_write(store_index(store), &w), 0);
		{
			struct buf b = BUF_INIT;

			put_u8(&b, 1);
			put_u64(&b, store_replica_id(store));
			put_varint(&b, 0);
			put_u64(&b, 0);
			put_varint(&b, 0);
			put_u8(&b, 0);
			assert_int_equal(index_meta_put(w, INDEX_META_COUNTERS, b.data, b.len), 0);
			buf_deinit(&b);
		}
		assert_int_equal(index_commit(&w), 0);
		assert_int_equal(replica_open(&p->replica, store), 0);
	}
}

struct race {
	struct place *p;
	int inside, most;
};

static void *lock_often(void *data)
{
	struct race *race = data;

	for (int i = 0; i < 200; i++) {
		replica_lock(race->p->replica);
		race->inside++;
		race->most = race->inside > race->most ? race->inside : race->most;
		if (i % 20 == 0)
			usleep(10);
		race->inside--;
		replica_unlock(race->p->replica);
	}
	return NULL;
}

static void *unlock(void *data)
{
	replica_unlock(data);
	return NULL;
}

static void test_writer_lock(void **state)
{
	struct race race = {.p = *state};
	pthread_t threads[4], other;

	for (size_t i = 0; i < ARRAY_SIZE(threads); i++)
		assert_int_equal(pthread_create(&threads[i], NULL, lock_often, &race), 0);
	for (size_t i = 0; i < ARRAY_SIZE(threads); i++)
		pthread_join(threads[i], NULL);
	assert_int_equal(race.most, 1);

	/* handed on to another thread */
	replica_lock(race.p->replica);
	assert_int_equal(pthread_create(&other, NULL, unlock, race.p->replica), 0);
	pthread_join(other, NULL);
	replica_lock(race.p->replica);
	replica_unlock(race.p->replica);
}

static void test_join(void **state)
{
	struct place *p = *state;

	struct store_folder was, now = {.id = 4711, .algorithm = HASH_SHA256, .standing = STORE_JOINED};

	store_folder(replica_store(p->replica), &was);
	assert_int_equal(replica_join(p->replica, &was, &now), 0);
	assert_int_equal(store_folder_id(replica_store(p->replica)), 4711);
	assert_true(store_joined(replica_store(p->replica)));
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_first_event, setup, teardown),
		cmocka_unit_test_setup_teardown(test_registers, setup, teardown),
		cmocka_unit_test_setup_teardown(test_lamport, setup, teardown),
		cmocka_unit_test_setup_teardown(test_restart_is_a_new_incarnation, setup, teardown),
		cmocka_unit_test_setup_teardown(test_abort, setup, teardown),
		cmocka_unit_test_setup_teardown(test_end_within, setup, teardown),
		cmocka_unit_test_setup_teardown(test_lineage_of_peers, setup, teardown),
		cmocka_unit_test_setup_teardown(test_members, setup, teardown),
		cmocka_unit_test_setup_teardown(test_copy_is_suspect, setup, teardown),
		cmocka_unit_test_setup_teardown(test_renewed_is_not_suspect, setup, teardown),
		cmocka_unit_test_setup_teardown(test_damaged_counters, setup, teardown),
		cmocka_unit_test_setup_teardown(test_writer_lock, setup, teardown),
		cmocka_unit_test_setup_teardown(test_join, setup, teardown),
	};

	return cmocka_run_group_tests_name("replica", tests, NULL, NULL);
}
