/* tests/unit/tombstones/test_anew.c — what is recorded anew after a restore, and what is not. */
#include "tests/unit/tombstones/replica_help.h"

#include "tombstones/anew.h"

#define PEER 0xbeef
#define FOREIGN 77 /* an incarnation of the peer */

static struct record a_file(uint8_t content)
{
	struct record r = {.live = true, .kind = RECORD_FILE, .mode = 0644, .mtime_ns = 5};

	r.content.root.bytes[0] = content;
	r.content.size = 1;
	r.content.chunk_bits = CHUNK_BITS_MIN;
	return r;
}

/* Make an event and store it. old: moved. */
static struct record make(struct replica_txn *t, const char *path, enum replica_event_kind kind, struct record *old, struct record new)
{
	struct row row = {.place = ROW_NOT_HERE};
	struct record ret = {0};

	assert_int_equal(replica_event(t, kind, old, &new), 0);
	row.record = new;
	if (new.live)
		row.place = ROW_UNSUPPORTED;
	assert_int_equal(index_put(t->index, path, &row), 0);
	assert_int_equal(record_copy(&ret, &row.record), 0);
	row_deinit(&row);
	if (old)
		record_deinit(old);
	return ret;
}

static struct row row_of(struct place *p, const char *path)
{
	struct index_txn *t = NULL;
	struct row row = {0};

	assert_int_equal(index_begin_read(replica_index(p->replica), &t), 0);
	assert_int_equal(index_get(t, path, &row), 0);
	index_abort(t);
	return row;
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

static int hear(struct place *p, uint64_t inc, uint64_t counter)
{
	struct version_vector v = {0};
	int r;

	assert_int_equal(version_vector_raise(&v, (struct version_dot){inc, counter}, NULL), 0);
	r = replica_hear(p->replica, PEER, &v);
	version_vector_deinit(&v);
	return r;
}

static bool by(const struct version_dots *d, uint64_t inc)
{
	return d->n == 1 && d->v[0].inc == inc;
}

static void test_anew(void **state)
{
	static const struct version_incarnation foreign = {.inc = FOREIGN, .replica = PEER};
	struct place p;
	struct record kept, edited, touched, deleted, won;
	struct version_dot one, two;
	struct replica_txn t;
	struct knowledge k = {0};
	struct index_txn *read = NULL;
	struct row row;
	uint64_t records = 99;

	(void)state;
	place_make(&p);
	place_open(&p);
	begin(&p, &t);
	assert_int_equal(replica_learn_lineage(&t, &foreign, 1), 0);
	kept = make(&t, "kept", REPLICA_EVENT_STATE, NULL, a_file(1));
	edited = make(&t, "edited", REPLICA_EVENT_STATE, NULL, a_file(2));
	touched = make(&t, "touched", REPLICA_EVENT_STATE, NULL, a_file(3));
	deleted = make(&t, "deleted", REPLICA_EVENT_STATE, NULL, a_file(4));
	commit(&p, &t);
	one = replica_own(p.replica);
	assert_int_equal(hear(&p, one.inc, one.counter), 0);
	assert_false(replica_anew_due(p.replica));
	assert_int_equal(anew_run(p.replica, &records), 0);
	assert_int_equal(records, 0);

	/* After the acknowledgement; in two incarnations. */
	begin(&p, &t);
	edited = make(&t, "edited", REPLICA_EVENT_STATE, &edited, a_file(5));
	deleted = make(&t, "deleted", REPLICA_EVENT_DELETE, &deleted, a_file(0));
	commit(&p, &t);
	replica_end_incarnation(p.replica);
	begin(&p, &t);
	{
		struct record chmod = a_file(3);

		chmod.mode = 0600;
		touched = make(&t, "touched", REPLICA_EVENT_ATTRIBUTES, &touched, chmod);
		won = make(&t, "won", REPLICA_EVENT_STATE, NULL, a_file(6));
		/* the peer's took it; ours had lost */
		row = (struct row){.place = ROW_UNSUPPORTED};
		assert_int_equal(record_copy(&row.record, &won), 0);
		assert_int_equal(version_dots_unite(&row.record.lost, &won.dots), 0);
		row.record.dots.v[0] = row.record.adots.v[0] = row.record.mdots.v[0] = (struct version_dot){FOREIGN, 3};
		assert_int_equal(version_vector_raise(&row.record.vv, (struct version_dot){FOREIGN, 3}, NULL), 0);
		assert_int_equal(index_put(t.index, "won", &row), 0);
		row_deinit(&row);
	}
	assert_int_equal(knowledge_forget(&t.knowledge, "forgotten"), 0);
	t.knowledge_dirty = true;
	commit(&p, &t);
	two = replica_own(p.replica);
	assert_int_not_equal(two.inc, one.inc);

	/* Nobody may name more of the first than it was left at, though it is closed. */
	assert_int_equal(hear(&p, one.inc, two.counter + 5), REPLICA_RESTORED);
	assert_true(replica_anew_due(p.replica));
	assert_int_equal(replica_own(p.replica).inc, 0);
	assert_int_equal(anew_run(p.replica, &records), 0);
	assert_int_equal(records, 4);
	assert_false(replica_anew_due(p.replica));
	two = replica_own(p.replica);
	assert_int_not_equal(two.inc, 0);
	assert_int_equal(version_lineage_find(replica_lineage(p.replica), two.inc)->parent, one.inc);
	assert_int_equal(version_lineage_find(replica_lineage(p.replica), two.inc)->from, one.counter);

	row = row_of(&p, "kept");
	assert_true(record_equal(&row.record, &kept));
	row_deinit(&row);
	row = row_of(&p, "edited");
	assert_true(record_same_state(&row.record, &edited));
	assert_true(by(&row.record.dots, two.inc) && by(&row.record.adots, one.inc));
	assert_int_equal(row.record.vv.n, 1);
	row_deinit(&row);
	row = row_of(&p, "touched");
	assert_int_equal(row.record.mode, 0600);
	assert_true(by(&row.record.dots, one.inc) && by(&row.record.adots, two.inc) && by(&row.record.mdots, one.inc));
	row_deinit(&row);
	row = row_of(&p, "deleted");
	assert_false(row.record.live);
	assert_true(by(&row.record.dots, two.inc));
	row_deinit(&row);
	row = row_of(&p, "won");
	assert_true(by(&row.record.dots, FOREIGN));
	assert_int_equal(row.record.lost.n, 0);
	assert_int_equal(version_vector_get(&row.record.vv, one.inc), one.counter);
	row_deinit(&row);

	assert_int_equal(index_begin_read(replica_index(p.replica), &read), 0);
	assert_int_equal(replica_knowledge_read(read, &k), 0);
	index_abort(read);
	assert_int_equal(k.k.n, 1);
	assert_int_equal(version_vector_get(&k.k, two.inc), two.counter);
	assert_int_equal(knowledge_of(&k, "forgotten")->n, 0);
	knowledge_deinit(&k);

	/* What was shown is no news any more, but what goes beyond the new line is. */
	assert_int_equal(hear(&p, one.inc, two.counter + 5), 0);
	assert_int_equal(hear(&p, two.inc, two.counter), 0);
	assert_int_equal(hear(&p, two.inc, two.counter + 1), REPLICA_RESTORED);
	record_deinit(&kept);
	record_deinit(&edited);
	record_deinit(&touched);
	record_deinit(&deleted);
	record_deinit(&won);
	place_remove(&p);
}

/* A peer that only says so can't have everything written without end; its sessions end all the same. */
static void test_bounded(void **state)
{
	struct place p;
	uint64_t records;
	unsigned times = 0;

	(void)state;
	place_make(&p);
	place_open(&p);
	for (unsigned i = 0; i < 100; i++) {
		struct version_dot own;
		struct replica_txn t;
		struct record r;

		begin(&p, &t);
		r = make(&t, "file", REPLICA_EVENT_STATE, NULL, a_file((uint8_t)i));
		commit(&p, &t);
		record_deinit(&r);
		own = replica_own(p.replica);
		assert_int_equal(hear(&p, own.inc, own.counter + 1), REPLICA_RESTORED);
		times += replica_anew_due(p.replica);
		assert_int_equal(anew_run(p.replica, &records), 0);
	}
	assert_true(times > 1 && times < 20);
	place_remove(&p);
}

static void test_doubts(void **state)
{
	struct place p;
	struct version_dot one;

	(void)state;
	place_make(&p);
	place_open(&p);
	for (unsigned i = 0; i < 3; i++) {
		int64_t now = REPLICA_DOUBT_NS * (i + 1);
		struct replica_txn t;
		struct record r;

		begin(&p, &t);
		r = make(&t, "file", REPLICA_EVENT_STATE, NULL, a_file(1));
		commit(&p, &t);
		record_deinit(&r);
		one = replica_own(p.replica);
		if (i == 1) {
			replica_doubt(p.replica, REPLICA_SESSION_LOST, now - 1);
			assert_int_equal(replica_own(p.replica).inc, one.inc);
		}
		replica_doubt(p.replica, i == 1 ? REPLICA_CLOCK_JUMPED : REPLICA_SESSION_LOST, now);
		assert_int_equal(replica_own(p.replica).inc, 0);
	}
	place_remove(&p);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_anew),
		cmocka_unit_test(test_bounded),
		cmocka_unit_test(test_doubts),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
