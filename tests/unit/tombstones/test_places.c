/* tests/unit/tombstones/test_places.c — where other replicas were met. */
#include "tests/unit/tombstones/replica_help.h"

#include "tombstones/places.h"

static void test_note(void **state)
{
	struct places p = {0};

	(void)state;
	assert_null(places_find(&p, "/a"));
	assert_int_equal(places_note(&p, "/a", 1, 10, 0), 0);
	assert_int_equal(places_note(&p, "host:b", 2, 20, 0), 0);
	assert_int_equal(places_note(&p, "/a", 3, 30, 0), 0);
	assert_int_equal(p.n, 2);
	assert_int_equal(places_find(&p, "/a")->replica, 3);
	assert_int_equal(places_find(&p, "host:b")->seen_ns, 20);
	assert_null(places_find(&p, "host"));
	places_deinit(&p);
}

static void test_full(void **state)
{
	struct places p = {0};
	char *long_one = malloc(PLACE_BYTES_MAX + 2), address[32];

	(void)state;
	for (int64_t i = 0; i < PLACES_MAX; i++) {
		snprintf(address, sizeof(address), "/%d", (int)i);
		assert_int_equal(places_note(&p, address, 1, i == 7 ? 0 : 100 + i, 0), 0);
	}
	assert_int_equal(places_note(&p, "/one more", 1, 5000, 0), 0);
	assert_int_equal(p.n, PLACES_MAX);
	assert_null(places_find(&p, "/7"));
	assert_non_null(places_find(&p, "/6"));
	assert_non_null(places_find(&p, "/one more"));
	memset(long_one, 'x', PLACE_BYTES_MAX + 1);
	long_one[PLACE_BYTES_MAX + 1] = '\0';
	assert_int_equal(places_note(&p, long_one, 1, 6000, 0), 0);
	assert_null(places_find(&p, long_one));
	free(long_one);
	places_deinit(&p);
}

static int read_back(struct place *at, struct places *ret)
{
	struct index_txn *t = NULL;
	int r;

	assert_int_equal(index_begin_read(replica_index(at->replica), &t), 0);
	r = places_read(t, ret);
	index_abort(t);
	return r;
}

static void write_raw(struct place *at, const void *p, size_t n)
{
	struct index_txn *w = NULL;

	assert_int_equal(index_begin_write(replica_index(at->replica), &w), 0);
	assert_int_equal(index_meta_put(w, INDEX_META_PLACES, p, n), 0);
	assert_int_equal(index_commit(&w), 0);
}

static void test_kept(void **state)
{
	static const uint8_t first[] = {1, 1, 2, '/', 'a', 7, 0, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0};
	static const uint8_t later[] = {3, 0}, cut[] = {2, 1, 2, '/'}, nameless[20] = {2, 1, 0};
	struct place at;
	struct places p = {0}, q = {0};
	struct index_txn *w = NULL;

	(void)state;
	place_make(&at);
	place_open(&at);
	assert_int_equal(read_back(&at, &q), 0);
	assert_int_equal(q.n, 0);
	assert_int_equal(places_note(&p, "/a", UINT64_MAX, -5, 0), 0);
	assert_int_equal(places_note(&p, "user@host:b c", 2, 20, 300), 0);
	assert_int_equal(index_begin_write(replica_index(at.replica), &w), 0);
	assert_int_equal(places_write(w, &p), 0);
	assert_int_equal(index_commit(&w), 0);
	place_close(&at);
	place_open(&at);
	assert_int_equal(read_back(&at, &q), 0);
	assert_int_equal(q.n, 2);
	assert_int_equal(places_find(&q, "/a")->replica, UINT64_MAX);
	assert_int_equal(places_find(&q, "/a")->seen_ns, -5);
	assert_int_equal(places_find(&q, "user@host:b c")->replica, 2);
	assert_int_equal(places_find(&q, "/a")->seq, 0);
	assert_int_equal(places_find(&q, "user@host:b c")->seq, 300);
	places_deinit(&p);
	places_deinit(&q);

	write_raw(&at, first, sizeof(first)); /* by an older program */
	assert_int_equal(read_back(&at, &q), 0);
	assert_int_equal(places_find(&q, "/a")->replica, 7);
	assert_int_equal(places_find(&q, "/a")->seen_ns, 9);
	assert_int_equal(places_find(&q, "/a")->seq, 0);
	places_deinit(&q);
	write_raw(&at, later, sizeof(later));
	assert_int_equal(read_back(&at, &q), -EPROTONOSUPPORT);
	write_raw(&at, cut, sizeof(cut));
	assert_int_equal(read_back(&at, &q), -EBADMSG);
	write_raw(&at, nameless, sizeof(nameless));
	assert_int_equal(read_back(&at, &q), -EBADMSG);
	assert_int_equal(q.n, 0);
	place_remove(&at);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_note),
		cmocka_unit_test(test_full),
		cmocka_unit_test(test_kept),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
