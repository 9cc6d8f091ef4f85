/* tests/unit/merkle/test_version.c — dots, vectors and lineage, against brute force on random
 * lineages. */
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "merkle/version.h"
#include "tests/random.h"

/* --- a deterministic source of choices --- */

static uint64_t below(uint64_t *state, uint64_t limit)
{
	return test_random(state) % limit;
}

/* --- the rule, written down naively: ids 1…n, parent and from by id --- */

#define IDS 400

struct naive {
	uint64_t parent[IDS + 1], from[IDS + 1];
	size_t n;
};

static bool naive_implies(const struct naive *m, uint64_t j, struct version_dot dot)
{
	uint64_t k = m->parent[j], counter = m->from[j];

	while (k) {
		if (k == dot.inc)
			return counter >= dot.counter;
		counter = m->from[k];
		k = m->parent[k];
	}
	return false;
}

/* A vector by id; 0: no entry. */
static bool naive_has(const struct naive *m, const uint64_t *v, struct version_dot dot)
{
	if (v[dot.inc] >= dot.counter)
		return true;
	for (uint64_t j = 1; j <= m->n; j++)
		if (v[j] && j != dot.inc && naive_implies(m, j, dot))
			return true;
	return false;
}

static void naive_prune(const struct naive *m, uint64_t *v)
{
	uint64_t out[IDS + 1];

	memcpy(out, v, sizeof(out));
	for (uint64_t i = 1; i <= m->n; i++)
		for (uint64_t j = 1; v[i] && j <= m->n; j++)
			if (j != i && v[j] && naive_implies(m, j, (struct version_dot){i, v[i]}))
				out[i] = 0;
	memcpy(v, out, sizeof(out));
}

static struct version_lineage *random_lineage(struct naive *m, size_t n, uint64_t *seed)
{
	struct version_lineage *l;
	size_t reach = 1 + below(seed, n);

	assert_int_equal(version_lineage_new(&l), 0);
	*m = (struct naive){.n = n};
	for (uint64_t i = 1; i <= n; i++) {
		struct version_incarnation inc = {.inc = i, .replica = i % 5};

		if (i > 1 && below(seed, 10)) { /* mostly near ones: long lines */
			inc.parent = i - 1 - below(seed, i - 1 < reach ? i - 1 : reach);
			inc.from = below(seed, 20);
		}
		m->parent[i] = inc.parent;
		m->from[i] = inc.from;
		assert_int_equal(version_lineage_add(l, &inc), 0);
	}
	return l;
}

static void random_vector(const struct naive *m, const struct version_lineage *l, size_t raises,
	struct version_vector *v, uint64_t *naive, uint64_t *seed)
{
	*v = (struct version_vector){0};
	memset(naive, 0, (IDS + 1) * sizeof(*naive));
	for (size_t i = 0; i < raises; i++) {
		struct version_dot dot = {1 + below(seed, m->n), 1 + below(seed, 25)};

		assert_int_equal(version_vector_raise(v, dot, l), 0);
		if (naive[dot.inc] < dot.counter)
			naive[dot.inc] = dot.counter;
		naive_prune(m, naive);
	}
}

static void check_same(const struct version_vector *v, const uint64_t *naive, size_t n)
{
	size_t entries = 0;

	for (uint64_t i = 1; i <= n; i++) {
		assert_int_equal(version_vector_get(v, i), naive[i]);
		entries += naive[i] != 0;
	}
	assert_int_equal(v->n, entries);
	for (size_t i = 1; i < v->n; i++)
		assert_true(v->v[i - 1].inc < v->v[i].inc);
}

static void test_against_brute_force(void **state)
{
	static uint64_t na[IDS + 1], nb[IDS + 1];

	(void)state;
	for (uint64_t round = 1; round <= 300; round++) {
		uint64_t seed = round;
		struct version_vector a, b;
		struct naive m;
		struct version_lineage *l = random_lineage(&m, 2 + below(&seed, 30), &seed);
		bool leq = true;

		for (uint64_t j = 1; j <= m.n; j++)
			for (uint64_t i = 1; i <= m.n; i++) {
				struct version_dot dot = {i, 1 + below(&seed, 20)};

				assert_int_equal(version_lineage_implies(l, j, dot),
					naive_implies(&m, j, dot));
			}
		random_vector(&m, l, 1 + below(&seed, 8), &a, na, &seed);
		random_vector(&m, l, 1 + below(&seed, 8), &b, nb, &seed);
		check_same(&a, na, m.n);
		check_same(&b, nb, m.n);
		for (uint64_t i = 1; i <= m.n; i++) {
			struct version_dot dot = {i, 1 + below(&seed, 25)};

			assert_int_equal(version_vector_has(&a, dot, l), naive_has(&m, na, dot));
			if (na[i])
				leq = leq && naive_has(&m, nb, (struct version_dot){i, na[i]});
		}
		assert_int_equal(version_vector_leq(&a, &b, l), leq);
		assert_int_equal(version_vector_join(&a, &b, l), 0);
		for (uint64_t i = 1; i <= m.n; i++)
			na[i] = na[i] > nb[i] ? na[i] : nb[i];
		naive_prune(&m, na);
		check_same(&a, na, m.n);
		assert_true(version_vector_leq(&b, &a, l));
		version_vector_deinit(&a);
		version_vector_deinit(&b);
		version_lineage_free(l);
	}
}

/* Long vectors take another way through the lineage. */
static void test_long_vectors(void **state)
{
	static uint64_t na[IDS + 1], nb[IDS + 1];

	(void)state;
	for (uint64_t round = 1; round <= 3; round++) {
		uint64_t seed = round;
		struct version_vector a = {0}, b = {0};
		struct naive m;
		struct version_lineage *l = random_lineage(&m, IDS, &seed);

		memset(na, 0, sizeof(na));
		memset(nb, 0, sizeof(nb));
		for (uint64_t i = 1; i <= IDS; i++) {
			na[i] = below(&seed, 8) ? 1 + below(&seed, 20) : 0;
			nb[i] = below(&seed, 8) ? 1 + below(&seed, 20) : 0;
			if (na[i]) /* without lineage: nothing is dropped */
				version_vector_raise(&a, (struct version_dot){i, na[i]}, NULL);
			if (nb[i])
				version_vector_raise(&b, (struct version_dot){i, nb[i]}, NULL);
		}
		check_same(&a, na, IDS);
		assert_true(a.n > 256);
		for (uint64_t i = 1; i <= IDS; i++) {
			struct version_dot dot = {i, 1 + below(&seed, 20)};

			assert_int_equal(version_vector_has(&a, dot, l), naive_has(&m, na, dot));
		}
		for (uint64_t i = 1; i <= IDS; i++)
			na[i] = na[i] > nb[i] ? na[i] : nb[i];
		assert_int_equal(version_vector_join(&a, &b, l), 0);
		naive_prune(&m, na);
		check_same(&a, na, IDS);
		assert_true(version_vector_leq(&b, &a, l));
		version_vector_normalise(&b, l);
		naive_prune(&m, nb);
		check_same(&b, nb, IDS);
		assert_true(version_vector_leq(&b, &a, l));
		version_vector_deinit(&a);
		version_vector_deinit(&b);
		version_lineage_free(l);
	}
}

/* The longest vector over the longest line, as a hostile peer would send it: must be quick. */
static void test_hostile_line(void **state)
{
	struct version_vector v = {0}, other = {0};
	struct version_lineage *l;
	struct version_incarnation extra = {.inc = VERSION_LINEAGE_MAX + 1};

	(void)state;
	assert_int_equal(version_lineage_new(&l), 0);
	for (uint64_t i = 1; i <= VERSION_LINEAGE_MAX; i++) {
		struct version_incarnation inc = {.inc = i, .parent = i - 1, .from = i > 1};

		assert_int_equal(version_lineage_add(l, &inc), 0);
	}
	assert_int_equal(version_lineage_add(l, &extra), -ENOSPC);
	assert_int_equal(version_lineage_count(l), VERSION_LINEAGE_MAX);
	assert_true(version_lineage_implies(l, VERSION_LINEAGE_MAX, (struct version_dot){1, 1}));
	assert_false(version_lineage_implies(l, VERSION_LINEAGE_MAX, (struct version_dot){1, 2}));
	assert_false(version_lineage_implies(l, 1, (struct version_dot){1, 1}));
	for (uint64_t i = 0; i < VERSION_ENTRIES_MAX; i++) /* counters that nothing implies */
		version_vector_raise(&v, (struct version_dot){1 + i * 16, 5}, NULL);
	assert_int_equal(v.n, VERSION_ENTRIES_MAX);
	version_vector_raise(&other, (struct version_dot){2, 5}, NULL);
	assert_int_equal(version_vector_join(&v, &other, l), -E2BIG);
	assert_int_equal(v.n, VERSION_ENTRIES_MAX);
	assert_false(version_vector_leq(&other, &v, l));
	other.v[0].counter = 1;
	for (int i = 0; i < 20; i++)
		assert_int_equal(version_vector_join(&v, &other, l), 0); /* implied */
	assert_int_equal(v.n, VERSION_ENTRIES_MAX);
	assert_int_equal(version_vector_get(&v, 2), 0);
	assert_true(version_vector_leq(&other, &v, l));
	version_vector_deinit(&v);
	version_vector_deinit(&other);
	version_lineage_free(l);
}

static void test_lineage_refuses(void **state)
{
	static const struct version_incarnation bad[] = {
		{0, 0, 0, 1},			    /* no name */
		{7, 99, 1, 1},			    /* unknown parent */
		{7, 7, 1, 1},			    /* its own parent */
		{7, 0, 1, 1},			    /* `from` without a parent */
		{7, 1, VERSION_COUNTER_MAX + 1, 1}, /* beyond the limit */
		{1, 0, 0, 2},			    /* known as another's */
		{2, 1, 4, 1},			    /* known with another end */
		{1, 2, 1, 1},			    /* a cycle */
	};
	static const struct version_incarnation one = {1, 0, 0, 1}, two = {2, 1, 3, 1};
	const struct version_incarnation *found;
	struct version_lineage *l;

	(void)state;
	assert_int_equal(version_lineage_new(&l), 0);
	assert_int_equal(version_lineage_add(l, &two), -EBADMSG); /* parents first */
	assert_int_equal(version_lineage_add(l, &one), 0);
	found = version_lineage_find(l, 1);
	assert_int_equal(version_lineage_add(l, &two), 0);
	assert_int_equal(version_lineage_add(l, &two), VERSION_KNOWN);
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		assert_int_equal(version_lineage_add(l, &bad[i]), -EBADMSG);
	assert_int_equal(version_lineage_count(l), 2);
	for (uint64_t i = 3; i < 1000; i++)
		version_lineage_add(l, &(struct version_incarnation){.inc = i});
	assert_ptr_equal(version_lineage_find(l, 1), found);
	assert_int_equal(version_lineage_at(l, 1)->inc, 2);
	assert_null(version_lineage_at(l, 5000));
	assert_null(version_lineage_find(l, 5000));
	assert_false(version_lineage_implies(l, 5000, (struct version_dot){1, 1}));
	assert_false(version_lineage_implies(l, 1, (struct version_dot){5000, 1}));
	version_lineage_free(l);
	version_lineage_free(NULL);
}

static void *adder(void *arg)
{
	for (uint64_t i = 1; i <= 2000; i++)
		version_lineage_add(arg,
			&(struct version_incarnation){.inc = i, .parent = i - 1, .from = i > 1});
	return NULL;
}

static void test_threads(void **state)
{
	struct version_vector v = {0};
	struct version_lineage *l;
	pthread_t thread;

	(void)state;
	assert_int_equal(version_lineage_new(&l), 0);
	assert_int_equal(pthread_create(&thread, NULL, adder, l), 0);
	for (uint64_t i = 0; version_lineage_count(l) < 2000; i++) {
		uint64_t n = version_lineage_count(l);

		if (n > 1)
			assert_true(version_lineage_implies(l, n, (struct version_dot){1, 1}));
		version_vector_raise(&v, (struct version_dot){1 + i % 2000, 1}, l);
	}
	pthread_join(thread, NULL);
	version_vector_raise(&v, (struct version_dot){2000, 1}, l);
	assert_int_equal(v.n, 1);
	version_vector_deinit(&v);
	version_lineage_free(l);
}

static void test_dots(void **state)
{
	struct version_dots a = {0}, b = {0}, c = {0};
	struct version_dot greatest;

	(void)state;
	assert_int_equal(version_dots_order(&a).inc, 0);
	assert_true(version_dots_subset(&a, &b));
	version_dots_add(&a, (struct version_dot){5, 2});
	version_dots_add(&a, (struct version_dot){3, 9});
	version_dots_add(&a, (struct version_dot){5, 1});
	version_dots_add(&a, (struct version_dot){5, 1});
	assert_int_equal(a.n, 3); /* one incarnation may have several */
	assert_int_equal(a.v[0].inc, 3);
	assert_int_equal(a.v[1].counter, 1);
	assert_true(version_dots_contain(&a, (struct version_dot){5, 2}));
	assert_false(version_dots_contain(&a, (struct version_dot){5, 3}));
	version_dots_add(&b, (struct version_dot){5, 2});
	version_dots_add(&b, (struct version_dot){4, 9});
	greatest = version_dots_order(&b);
	assert_int_equal(greatest.inc, 4);
	assert_false(version_dots_subset(&b, &a));
	assert_int_equal(version_dots_copy(&c, &a), 0);
	assert_true(version_dots_equal(&a, &c));
	assert_int_equal(version_dots_unite(&c, &b), 0);
	assert_int_equal(c.n, 4);
	assert_true(version_dots_subset(&a, &c));
	assert_true(version_dots_subset(&b, &c));
	assert_false(version_dots_equal(&a, &c));
	assert_int_equal(version_dots_unite(&c, &c), 0);
	assert_int_equal(c.n, 4);
	assert_true(
		version_order_compare((struct version_dot){9, 1}, (struct version_dot){1, 2}) < 0);
	assert_true(
		version_order_compare((struct version_dot){9, 2}, (struct version_dot){1, 2}) > 0);
	assert_int_equal(version_order_compare(greatest, greatest), 0);
	for (uint64_t i = 1; c.n < VERSION_ENTRIES_MAX; i++)
		assert_int_equal(version_dots_add(&c, (struct version_dot){100, i}), 0);
	assert_int_equal(version_dots_add(&c, (struct version_dot){101, 1}), -E2BIG);
	version_dots_add(&a, (struct version_dot){101, 1});
	assert_int_equal(version_dots_unite(&c, &a), -E2BIG);
	assert_int_equal(c.n, VERSION_ENTRIES_MAX);
	version_dots_deinit(&a);
	version_dots_deinit(&b);
	version_dots_deinit(&c);
}

static void test_vectors(void **state)
{
	struct version_vector a = {0}, b = {0};
	struct version_dots d = {0};
	struct version_lineage *l;

	(void)state;
	assert_true(version_vector_leq(&a, &b, NULL));
	version_vector_raise(&a, (struct version_dot){2, 5}, NULL);
	version_vector_raise(&a, (struct version_dot){2, 3}, NULL);
	version_vector_raise(&a, (struct version_dot){1, 7}, NULL);
	assert_int_equal(a.n, 2);
	assert_int_equal(version_vector_get(&a, 2), 5);
	assert_int_equal(version_vector_get(&a, 9), 0);
	assert_int_equal(version_vector_max_counter(&a), 7);
	assert_int_equal(version_vector_max_counter(&b), 0);
	assert_true(version_vector_has(&a, (struct version_dot){2, 5}, NULL));
	assert_false(version_vector_has(&a, (struct version_dot){2, 6}, NULL));
	assert_int_equal(version_vector_copy(&b, &a), 0);
	assert_true(version_vector_equal(&a, &b));
	version_vector_raise(&b, (struct version_dot){2, 6}, NULL);
	assert_true(version_vector_leq(&a, &b, NULL));
	assert_false(version_vector_leq(&b, &a, NULL));
	assert_int_equal(version_lineage_new(&l), 0);
	version_lineage_add(l, &(struct version_incarnation){.inc = 1});
	assert_false(version_vector_known(&a, l));
	version_lineage_add(l, &(struct version_incarnation){.inc = 2});
	assert_true(version_vector_known(&a, l));
	version_dots_add(&d, (struct version_dot){2, 8});
	assert_true(version_dots_known(&d, l));
	version_dots_add(&d, (struct version_dot){3, 8});
	assert_false(version_dots_known(&d, l));
	version_lineage_add(l, &(struct version_incarnation){.inc = 3, .parent = 2, .from = 8});
	assert_false(version_dots_known(&d, l)); /* an event that it cannot have had */
	d.v[1].counter = 9;
	assert_true(version_dots_known(&d, l));
	assert_int_equal(version_vector_raise(&a, (struct version_dot){1, UINT64_MAX}, l), -EOVERFLOW);
	assert_int_equal(version_dots_add(&d, (struct version_dot){1, UINT64_MAX}), -EOVERFLOW);
	version_lineage_free(l);
	version_dots_deinit(&d);
	version_vector_deinit(&a);
	version_vector_deinit(&b);
}

static void check_bad(const struct buf *b, bool vector)
{
	struct cursor c = cursor_over(b->data, b->len);
	struct version_vector v;
	struct version_dots d;

	if (vector) {
		version_vector_get_from(&c, &v);
		assert_null(v.v);
	} else {
		version_dots_get(&c, &d);
		assert_null(d.v);
	}
	assert_int_equal(cursor_finish(&c), -EBADMSG);
}

static void pairs(struct buf *b, size_t n, const uint64_t *v)
{
	buf_clear(b);
	put_varint(b, n);
	for (size_t i = 0; i < n; i++) {
		put_u64(b, v[2 * i]);
		put_varint(b, v[2 * i + 1]);
	}
}

static void test_codec(void **state)
{
	struct version_incarnation i = {5, 4, 300, 77}, got;
	struct version_vector v = {0}, w;
	struct version_dots d = {0}, e;
	struct buf b = BUF_INIT;
	struct cursor c;

	(void)state;
	version_vector_raise(&v, (struct version_dot){UINT64_MAX, VERSION_COUNTER_MAX}, NULL);
	version_vector_raise(&v, (struct version_dot){1, 1}, NULL);
	version_dots_add(&d, (struct version_dot){1, 1});
	version_dots_add(&d, (struct version_dot){1, 2});
	version_vector_put(&b, &v);
	version_dots_put(&b, &d);
	version_incarnation_put(&b, &i);
	assert_int_equal(buf_error(&b), 0);
	for (size_t n = 0; n < b.len; n++) { /* cut anywhere */
		c = cursor_over(b.data, n);
		version_vector_get_from(&c, &w);
		version_dots_get(&c, &e);
		version_incarnation_get(&c, &got);
		assert_int_equal(cursor_finish(&c), -EBADMSG);
		version_vector_deinit(&w);
		version_dots_deinit(&e);
	}
	c = cursor_over(b.data, b.len);
	version_vector_get_from(&c, &w);
	version_dots_get(&c, &e);
	version_incarnation_get(&c, &got);
	assert_int_equal(cursor_finish(&c), 0);
	assert_true(version_vector_equal(&v, &w));
	assert_true(version_dots_equal(&d, &e));
	assert_memory_equal(&i, &got, sizeof(i));
	version_vector_deinit(&w);
	version_dots_deinit(&e);

	pairs(&b, 1, (uint64_t[]){0, 1}); /* no incarnation */
	check_bad(&b, true);
	check_bad(&b, false);
	pairs(&b, 1, (uint64_t[]){1, 0}); /* no counter */
	check_bad(&b, true);
	pairs(&b, 1, (uint64_t[]){1, VERSION_COUNTER_MAX + 1});
	check_bad(&b, true);
	pairs(&b, 2, (uint64_t[]){2, 1, 1, 1}); /* order */
	check_bad(&b, true);
	check_bad(&b, false);
	pairs(&b, 2, (uint64_t[]){1, 1, 1, 2}); /* two entries of one: fine for dots only */
	check_bad(&b, true);
	pairs(&b, 2, (uint64_t[]){1, 1, 1, 1});
	check_bad(&b, false);
	buf_clear(&b);
	put_varint(&b, VERSION_ENTRIES_MAX + 1); /* beyond the limit, and the bytes are there */
	for (uint64_t k = 1; k <= VERSION_ENTRIES_MAX + 1; k++) {
		put_u64(&b, k);
		put_varint(&b, 1);
	}
	check_bad(&b, true);
	buf_clear(&b);
	put_varint(&b, VERSION_ENTRIES_MAX); /* announced, not there */
	check_bad(&b, true);
	buf_deinit(&b);
	version_vector_deinit(&v);
	version_dots_deinit(&d);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_against_brute_force),
		cmocka_unit_test(test_long_vectors),
		cmocka_unit_test(test_hostile_line),
		cmocka_unit_test(test_lineage_refuses),
		cmocka_unit_test(test_threads),
		cmocka_unit_test(test_dots),
		cmocka_unit_test(test_vectors),
		cmocka_unit_test(test_codec),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
