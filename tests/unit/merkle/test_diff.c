/* tests/unit/merkle/test_diff.c — a walk finds exactly the difference, at its price, and survives a
 * hostile answerer. */
#include "tests/unit/merkle/index_help.h"

#include "merkle/diff.h"

#define SEED UINT64_C(0xfeedfacecafebeef)

struct strings {
	char **v;
	size_t n, cap;
};

static void strings_add(struct strings *s, const char *text)
{
	assert_int_equal(array_reserve(&s->v, &s->cap, s->n + 1, sizeof(*s->v)), 0);
	s->v[s->n++] = strdup(text);
}

static void strings_free(struct strings *s)
{
	for (size_t i = 0; i < s->n; i++)
		free(s->v[i]);
	free(s->v);
	*s = (struct strings){0};
}

struct walk {
	struct index_txn *ours, *theirs;
	unsigned window; /* asks out at once */
	bool shuffle;	 /* answers in any order */
	bool split;	 /* ranges of level 0 are given back in parts */
	uint64_t rng;
	size_t asks, entries, rounds;
	struct strings found_ours, found_theirs;
};

static int note(const char *path, void *data)
{
	strings_add(data, path);
	return 0;
}

/* At some path, or before all of them. */
static void split(struct walk *w, struct diff *d, const struct diff_range *range)
{
	struct diff_range parts[2] = {*range, *range};
	char path[40];

	snprintf(path, sizeof(path), "dir%03u/sub1", (unsigned)(next_random(&w->rng) % 40));
	path_key(&parts[1].from, path);
	parts[0].split = parts[1].split = true;
	parts[0].open = false;
	parts[0].to = parts[1].from;
	if (path_key_compare(&parts[1].from, &range->from) > 0 &&
		(range->open || path_key_compare(&parts[1].from, &range->to) < 0))
		assert_int_equal(diff_split(d, range, parts, 2), 0);
	else
		assert_int_equal(diff_split(d, range, (struct diff_range[]){{.from = range->from, .to = range->to, .open = range->open, .split = true}}, 1), 0);
	assert_int_equal(diff_split(d, range, NULL, 0), -EBADMSG); /* not under way any more */
}

static void take(struct walk *w, struct diff *d, const struct diff_range *range)
{
	struct diff_entry *entries = NULL;
	struct diff_found found = {0};
	struct path_key from;
	bool cut;
	size_t n, before = w->found_theirs.n;

	if (range->level)
		assert_int_equal(diff_split(d, range, NULL, 0), -EBADMSG);
	if (w->split && !range->level && !range->split) {
		split(w, d, range);
		return;
	}
	assert_int_equal(diff_answer(w->theirs, range, SEED, &entries, &n, &cut, &from), 0);
	w->entries += n;
	assert_int_equal(diff_learn(d, w->ours, range, entries, n, cut, &from, &found), 0);
	for (size_t i = 0; i < found.n_ours; i++)
		strings_add(&w->found_ours, found.ours[i]);
	assert_true(range->level == 0 || (!found.n_ours && !found.n_theirs));
	assert_int_equal(diff_resolve(w->theirs, range, SEED, found.theirs, found.n_theirs, note,
				 &w->found_theirs),
		0);
	assert_int_equal(w->found_theirs.n - before, found.n_theirs);
	diff_found_deinit(&found);
	free(entries);
}

static void walk(struct walk *w, struct diff *d)
{
	struct diff_range *out = calloc(w->window, sizeof(*out));
	unsigned n = 0;
	int r;

	for (;;) {
		while (n < w->window && !(r = diff_next(d, &out[n]))) {
			n++;
			w->asks++;
		}
		if (!n)
			break;
		r = 0;
		if (w->shuffle)
			r = (int)(next_random(&w->rng) % n);
		take(w, d, &out[r]);
		memmove(&out[r], &out[r + 1], (n - 1 - (unsigned)r) * sizeof(*out));
		n--;
	}
	assert_int_equal(r, DIFF_DONE);
	free(out);
}

static void walk_deinit(struct walk *w)
{
	strings_free(&w->found_ours);
	strings_free(&w->found_theirs);
}

struct level0 {
	struct tree_entry *v;
	size_t n, cap;
};

static int collect(const struct tree_entry *entry, void *data)
{
	struct level0 *l = data;

	assert_int_equal(array_reserve(&l->v, &l->cap, l->n + 1, sizeof(*l->v)), 0);
	l->v[l->n++] = *entry;
	return 0;
}

/* Paths in a that b has not, or has otherwise; descending. */
static void expect_difference(
	struct index_txn *a, struct index_txn *b, enum tree_which which, struct strings *ret)
{
	struct path_key first = {0};
	struct level0 la = {0}, lb = {0};
	size_t j = 0;

	assert_int_equal(tree_entries_descending(a, which, 0, &first, NULL, collect, &la), 0);
	assert_int_equal(tree_entries_descending(b, which, 0, &first, NULL, collect, &lb), 0);
	for (size_t i = 0; i < la.n; i++) {
		char *path;

		while (j < lb.n && path_key_compare(&lb.v[j].key, &la.v[i].key) > 0)
			j++;
		if (j < lb.n && !path_key_compare(&lb.v[j].key, &la.v[i].key) &&
			hash_equal(&lb.v[j].hash, &la.v[i].hash))
			continue;
		assert_int_equal(
			index_row_path(a, (enum index_class)which, &la.v[i].key, &path), 0);
		strings_add(ret, path);
		free(path);
	}
	free(la.v);
	free(lb.v);
}

static int compare_text(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

static void assert_strings(struct strings *got, struct strings *want, bool in_order)
{
	assert_int_equal(got->n, want->n);
	if (!in_order && got->n) {
		qsort(got->v, got->n, sizeof(*got->v), compare_text);
		qsort(want->v, want->n, sizeof(*want->v), compare_text);
	}
	for (size_t i = 0; i < got->n; i++)
		assert_string_equal(got->v[i], want->v[i]);
}

/* Walk one tree of a against b; the result must be exact. */
static void assert_walk(struct walk *w, struct temp_index *a, struct temp_index *b,
	enum tree_which which, bool expect)
{
	struct strings ours = {0}, theirs = {0};
	struct index_counts na, nb;
	struct diff *d;

	w->ours = begin_read(a->x);
	w->theirs = begin_read(b->x);
	assert_int_equal(diff_new(&d, SEED), 0);
	if (expect) {
		assert_int_equal(index_counts(w->ours, &na), 0);
		assert_int_equal(index_counts(w->theirs, &nb), 0);
		diff_expect(d, na.live > nb.live ? na.live : nb.live,
			na.tombstones > nb.tombstones ? na.tombstones : nb.tombstones);
	}
	assert_int_equal(diff_start(d, which == TREE_LIVE, which == TREE_TOMBSTONES), 0);
	walk(w, d);
	expect_difference(w->ours, w->theirs, which, &ours);
	expect_difference(w->theirs, w->ours, which, &theirs);
	assert_strings(&w->found_ours, &ours, !w->shuffle);
	assert_strings(&w->found_theirs, &theirs, !w->shuffle);
	strings_free(&ours);
	strings_free(&theirs);
	diff_free(d);
	index_abort(w->ours);
	index_abort(w->theirs);
}

static void path_of(char *ret, size_t cap, uint64_t i)
{
	if (i % 97 == 5) {
		int n;

		memset(ret, 'y', 600);
		ret[200] = ret[400] = '/';
		n = 600 + snprintf(ret + 600, cap - 600, "/f%llu", (unsigned long long)i);
		assert_true((size_t)n < cap);
		return;
	}
	snprintf(ret, cap, "dir%03llu/sub%llu/file-%06llu", (unsigned long long)(i % 40),
		(unsigned long long)(i % 3), (unsigned long long)i);
}

static void fill(struct temp_index *a, uint64_t from, uint64_t to, uint64_t salt)
{
	struct index_txn *w = begin_write(a->x);
	char path[1024];

	for (uint64_t i = from; i < to; i++) {
		path_of(path, sizeof(path), i);
		if (i % 10 == 3)
			put_tombstone(w, path, i + 1);
		else
			put_file(w, path, i + salt);
	}
	assert_int_equal(index_commit(&w), 0);
}

static void change_some(struct temp_index *a, unsigned changes, uint64_t space, uint64_t *rng)
{
	struct index_txn *w = begin_write(a->x);
	char path[1024];

	while (changes--) {
		uint64_t i = next_random(rng) % space;
		int r;

		path_of(path, sizeof(path), i);
		switch (next_random(rng) % 4) {
		case 0:
			r = index_drop(w, path);
			assert_true(r == 0 || r == INDEX_ABSENT);
			break;
		case 1:
			put_tombstone(w, path, 1 + next_random(rng) % 100000);
			break;
		default:
			put_file(w, path, next_random(rng) % 1000000000);
		}
	}
	assert_int_equal(index_commit(&w), 0);
}

static void test_random_differences(void **state)
{
	uint64_t rng = 4711;

	(void)state;
	for (int round = 0; round < 24; round++) {
		uint64_t space = (uint64_t[]){1, 10, 200, 3000, 6000, 300}[round % 6];
		struct temp_index a, b;

		temp_open(&a);
		temp_open(&b);
		if (round % 4 != 1)
			fill(&a, 0, space, 0);
		if (round % 4 != 2)
			fill(&b, 0, space, 0);
		change_some(&a, (unsigned)(next_random(&rng) % (space / 20 + 3)), space + 5, &rng);
		change_some(&b, (unsigned)(next_random(&rng) % (space / 20 + 3)), space + 5, &rng);
		for (int which = 0; which < 2; which++)
			for (int variant = 0; variant < 5; variant++) {
				struct walk w = {.window = variant ? 6 : 1,
					.shuffle = variant == 2 || variant == 4,
					.split = variant == 4,
					.rng = 9};

				assert_walk(&w, &a, &b, which, variant == 3);
				walk_deinit(&w);
			}
		temp_remove(&a);
		temp_remove(&b);
	}
}

static void test_equal_and_empty(void **state)
{
	struct temp_index a, b;
	struct walk w = {.window = 4};

	(void)state;
	temp_open(&a);
	temp_open(&b);
	assert_walk(&w, &a, &b, TREE_LIVE, false);
	assert_int_equal(w.asks, 1);
	fill(&a, 0, 3000, 0);
	fill(&b, 0, 3000, 0);
	w = (struct walk){.window = 4};
	assert_walk(&w, &a, &b, TREE_LIVE, false);
	assert_int_equal(w.asks, 1);
	assert_int_equal(w.found_ours.n, 0);
	walk_deinit(&w);
	temp_remove(&a);
	temp_remove(&b);
}

struct last_of_block {
	struct index_txn *t;
	struct tree_entry v[400];
	size_t n;
};

static int keep_entry(const struct tree_entry *entry, void *data)
{
	struct last_of_block *l = data;

	assert_true(l->n < ARRAY_SIZE(l->v));
	l->v[l->n++] = *entry;
	return 0;
}

/* The peer has whole blocks more, right behind blocks that are equal: their beginnings alone tell.
 */
static void test_blocks_between(void **state)
{
	static struct last_of_block starts;
	struct temp_index a, b;
	struct path_key first = {0};
	char path[128];

	(void)state;
	temp_open(&a);
	temp_open(&b);
	fill(&a, 0, 3000, 0);
	fill(&b, 0, 3000, 0);
	struct index_txn *t = begin_read(a.x), *w = begin_write(b.x);

	starts.n = 0;
	assert_int_equal(tree_entries(t, TREE_LIVE, 1, &first, NULL, keep_entry, &starts), 0);
	for (size_t i = 1; i < starts.n; i += 3) {
		struct level0 one = {0};
		char *last;

		/* a name right behind the block's last record, which begins a block */
		assert_int_equal(tree_entries(t, TREE_LIVE, 0, &starts.v[i - 1].key,
					 &starts.v[i].key, collect, &one),
			0);
		assert_int_equal(
			index_row_path(t, INDEX_CLASS_LIVE, &one.v[one.n - 1].key, &last), 0);
		for (unsigned k = 0; strlen(last) < 100; k++) {
			struct path_key key;

			snprintf(path, sizeof(path), "%s-%u", last, k);
			path_key(&key, path);
			if (hash_fast(key.bytes, key.len, HELP_FOLDER) % 64)
				continue;
			put_file(w, path, k);
			break;
		}
		free(last);
		free(one.v);
	}
	assert_int_equal(index_commit(&w), 0);
	index_abort(t);
	for (int swapped = 0; swapped < 2; swapped++) {
		struct walk wk = {.window = 4};

		assert_walk(&wk, swapped ? &b : &a, swapped ? &a : &b, TREE_LIVE, false);
		assert_true(wk.found_ours.n + wk.found_theirs.n > 10);
		walk_deinit(&wk);
	}
	temp_remove(&a);
	temp_remove(&b);
}

/* What only the peer has is asked for at level 0 at once: not before what lies above it in path
 * order. */
static void test_order_with_skipped_levels(void **state)
{
	struct walk wk = {.window = 6};
	struct temp_index a, b;
	struct index_txn *w;
	struct path_key key;
	char path[1024];

	(void)state;
	temp_open(&a);
	temp_open(&b);
	fill(&a, 0, 3000, 0);
	fill(&b, 0, 3000, 0);
	/* The first two rows of both begin blocks of all levels; the first such block is equal, so
	 * that the ranges before and after it are asked for apart. */
	for (unsigned n = 0; n < 2; n++) {
		for (unsigned k = 0;; k++) {
			snprintf(path, sizeof(path), "dir-%c%u", 'a' + (char)n, k);
			path_key(&key, path);
			if (!(hash_fast(key.bytes, key.len, HELP_FOLDER) & 0x3ffff))
				break;
		}
		for (int side = 0; side < 2; side++) {
			w = begin_write(side ? b.x : a.x);
			put_file(w, path, 1);
			assert_int_equal(index_commit(&w), 0);
		}
	}
	w = begin_write(b.x);
	for (unsigned i = 0; i < 500; i++) {
		snprintf(path, sizeof(path), "a/%u", i); /* before all others */
		put_file(w, path, i);
		path_of(path, sizeof(path), i * 10 + 1);
		if (strlen(path) < 60)
			put_file(w, path, i + 12345);
	}
	assert_int_equal(index_commit(&w), 0);
	assert_walk(&wk, &a, &b, TREE_LIVE, false);
	walk_deinit(&wk);
	temp_remove(&a);
	temp_remove(&b);
}

/* Differences that stand alone cost about 64 entries a level each. */
static void test_cost(void **state)
{
	struct temp_index a, b;
	uint64_t rng = 31;
	char path[1024];

	(void)state;
	temp_open(&a);
	temp_open(&b);
	fill(&a, 0, 30000, 0);
	fill(&b, 0, 30000, 0);
	for (unsigned differences = 1; differences <= 16; differences *= 4) {
		struct walk w = {.window = 64};
		struct index_txn *t = begin_write(a.x);

		for (unsigned i = 0; i < differences; i++) {
			path_of(path, sizeof(path), next_random(&rng) % 3000 * 10 + 1);
			put_file(t, path, next_random(&rng));
		}
		assert_int_equal(index_commit(&t), 0);
		assert_walk(&w, &a, &b, TREE_LIVE, true);
		printf("%u differences in 30,000 rows: %zu asks, %zu entries (%zu bytes)\n",
			differences, w.asks, w.entries, w.entries * 16);
		assert_true(w.entries <= 800 + w.found_ours.n * 64 * TREE_LEVELS * 3);
		assert_true(w.asks <= 1 + w.found_ours.n * TREE_LEVELS);
		walk_deinit(&w);
	}
	temp_remove(&a);
	temp_remove(&b);
}

/* All theirs, in one range: more than fits an answer. And all ours. */
static void test_cut_answers(void **state)
{
	struct temp_index a, b;

	(void)state;
	temp_open(&a);
	temp_open(&b);
	fill(&b, 0, 9500, 0);
	for (int variant = 0; variant < 4; variant++) {
		struct walk w = {.window = 3, .shuffle = variant == 3};

		assert_walk(&w, variant == 1 ? &b : &a, variant == 1 ? &a : &b, TREE_LIVE,
			variant == 2);
		if (variant != 1)
			assert_true(w.asks >= 3);
		walk_deinit(&w);
	}
	/* everything differs on both sides */
	fill(&a, 0, 9500, 1);
	struct walk w = {.window = 8};
	assert_walk(&w, &a, &b, TREE_LIVE, false);
	assert_int_equal(w.found_ours.n, w.found_theirs.n);
	walk_deinit(&w);
	temp_remove(&a);
	temp_remove(&b);
}

static void random_entries(uint64_t *rng, struct diff_entry *v, size_t n)
{
	for (size_t i = 0; i < n; i++)
		v[i] = (struct diff_entry){next_random(rng), next_random(rng)};
}

/* Random entries, true ones in a wrong order, doubles: the walk ends, with work in proportion to
 * our own index. */
static void test_hostile_entries(void **state)
{
	static struct diff_entry lies[DIFF_ENTRIES_MAX];
	struct temp_index a;
	uint64_t rng = 99;

	(void)state;
	temp_open(&a);
	fill(&a, 0, 5000, 0);
	for (int kind = 0; kind < 4; kind++) {
		struct index_txn *t = begin_read(a.x);
		struct diff_range range;
		struct diff *d;
		size_t asks = 0;
		int r;

		assert_int_equal(diff_new(&d, SEED), 0);
		assert_int_equal(diff_start(d, true, true), 0);
		while (!(r = diff_next(d, &range))) {
			struct diff_entry *truth = NULL;
			struct diff_found found = {0};
			struct path_key from;
			size_t n, m;
			bool cut;

			assert_int_equal(diff_answer(t, &range, SEED, &truth, &n, &cut, &from), 0);
			m = kind == 0 ? next_random(&rng) % 50 : n;
			random_entries(&rng, lies, m);
			for (size_t i = 0; kind && i < n; i++) {
				size_t from_at = kind == 1 ? n - 1 - i : kind == 2 ? n / 2 : i;

				lies[i].separator = truth[from_at].separator;
			}
			assert_int_equal(diff_learn(d, t, &range, lies, m, false, NULL, &found), 0);
			diff_found_deinit(&found);
			free(truth);
			assert_true(++asks < 5000);
		}
		assert_int_equal(r, DIFF_DONE);
		diff_free(d);
		index_abort(t);
	}
	temp_remove(&a);
}

/* Cuts that need not be, that stand still, or that lie outside. */
static void test_hostile_cuts(void **state)
{
	static struct diff_entry lies[DIFF_ENTRIES_MAX + 1];
	struct temp_index a;
	struct index_txn *t;
	struct diff_found found = {0};
	struct diff_range range, other;
	struct path_key from;
	struct diff *d;
	uint64_t rng = 3;
	size_t n;

	(void)state;
	temp_open(&a);
	fill(&a, 0, 300, 0);
	t = begin_read(a.x);
	random_entries(&rng, lies, DIFF_ENTRIES_MAX + 1);
	assert_int_equal(diff_new(&d, SEED), 0);
	assert_int_equal(diff_start(d, true, false), 0);
	assert_int_equal(diff_next(d, &range), 0);
	assert_int_equal(diff_next(d, &other), DIFF_IDLE);
	path_key(&from, "dir010");

	n = DIFF_ENTRIES_MAX;
	assert_int_equal(diff_learn(d, t, &range, lies, n + 1, false, NULL, &found), -EBADMSG);
	assert_int_equal(diff_learn(d, t, &range, lies, n - 1, true, &from, &found), -EBADMSG);
	assert_int_equal(diff_learn(d, t, &range, lies, n, true, NULL, &found), -EBADMSG);
	assert_int_equal(diff_learn(d, t, &range, lies, n, true, &range.from, &found), -EBADMSG);
	other = range;
	other.level--;
	assert_int_equal(diff_learn(d, t, &other, lies, 0, false, NULL, &found), -EBADMSG);

	/* for ever cut, each time a little: what it sends itself ends it */
	assert_int_equal(diff_learn(d, t, &range, lies, n, true, &from, &found), 0);
	assert_int_equal(diff_learn(d, t, &range, lies, n, true, &from, &found),
		-EBADMSG); /* answered already */
	for (unsigned i = 0; i < 200; i++) {
		assert_int_equal(diff_next(d, &range), 0);
		if (range.level || range.open || path_key_compare(&range.to, &range.from) <= 0 ||
			range.to.len < 6) {
			diff_learn(d, t, &range, lies, 0, false, NULL, &found);
			diff_found_deinit(&found);
			continue;
		}
		from = range.to; /* at the end: not inside */
		assert_int_equal(diff_learn(d, t, &range, lies, n, true, &from, &found), -EBADMSG);
		break;
	}
	diff_free(d);

	/* not ranges */
	struct diff_entry *entries = NULL;
	bool cut;
	range = (struct diff_range){.which = 2, .open = true};
	assert_int_equal(diff_answer(t, &range, SEED, &entries, &n, &cut, &from), -EBADMSG);
	range = (struct diff_range){.level = 4, .open = true};
	assert_int_equal(diff_answer(t, &range, SEED, &entries, &n, &cut, &from), -EBADMSG);
	range = (struct diff_range){.open = false};
	path_key(&range.from, "b");
	path_key(&range.to, "a");
	assert_int_equal(diff_answer(t, &range, SEED, &entries, &n, &cut, &from), -EBADMSG);
	assert_int_equal(diff_resolve(t, &range, SEED, (uint64_t[]){1}, 1, note, NULL), -EBADMSG);
	index_abort(t);
	temp_remove(&a);
}

/* An endless stream of full, cut answers, each a little before the last: one range waits at a time,
 * nothing piles up. */
static void test_hostile_stream(void **state)
{
	static struct diff_entry lies[DIFF_ENTRIES_MAX];
	struct temp_index a;
	struct index_txn *t;
	struct diff_range range;
	struct diff *d;
	uint64_t taken = 0;
	int r = 0;

	(void)state;
	temp_open(&a);
	t = begin_read(a.x);
	assert_int_equal(diff_new(&d, SEED), 0);
	diff_expect(d, 1, 1);
	assert_int_equal(diff_start(d, true, false), 0);
	while (!r && !diff_next(d, &range)) {
		struct diff_found found = {0};
		struct path_key from = range.open ? (struct path_key){.len = 400} : range.to;
		struct diff_range none;

		assert_int_equal(diff_next(d, &none), DIFF_IDLE);
		assert_int_equal(range.level, 0);
		if (range.open)
			memset(from.bytes, 0xfe, from.len);
		for (int i = from.len - 1; i >= 0 && !from.bytes[i]--; i--)
			; /* the key just before, of the same length */
		r = diff_learn(d, t, &range, lies, DIFF_ENTRIES_MAX, true, &from, &found);
		diff_found_deinit(&found);
		taken += DIFF_ENTRIES_MAX;
		if (taken > 300 * DIFF_ENTRIES_MAX)
			break;
	}
	assert_int_equal(r, 0);
	diff_free(d);
	index_abort(t);
	temp_remove(&a);
}

/* Rows change on both sides between asks: the walk still ends, and what did not change meanwhile is
 * found. */
static void test_changes_meanwhile(void **state)
{
	struct temp_index a, b;
	uint64_t rng = 1234;

	(void)state;
	temp_open(&a);
	temp_open(&b);
	fill(&a, 0, 4000, 0);
	fill(&b, 0, 4000, 0);
	struct index_txn *t = begin_write(a.x);
	put_file(t, "marked-a", 1);
	assert_int_equal(index_commit(&t), 0);
	struct diff_range range;
	struct diff *d;
	bool seen = false;
	int r;

	assert_int_equal(diff_new(&d, SEED), 0);
	assert_int_equal(diff_start(d, true, false), 0);
	while (!(r = diff_next(d, &range))) {
		struct diff_entry *entries = NULL;
		struct diff_found found = {0};
		struct path_key from;
		size_t n;
		bool cut;

		t = begin_read(b.x);
		assert_int_equal(diff_answer(t, &range, SEED, &entries, &n, &cut, &from), 0);
		index_abort(t);
		change_some(&a, 5, 4000, &rng);
		t = begin_read(a.x);
		assert_int_equal(diff_learn(d, t, &range, entries, n, cut, &from, &found), 0);
		index_abort(t);
		change_some(&b, 5, 4000, &rng);
		for (size_t i = 0; i < found.n_ours; i++)
			seen = seen || !strcmp(found.ours[i], "marked-a");
		diff_found_deinit(&found);
		free(entries);
	}
	assert_int_equal(r, DIFF_DONE);
	assert_true(seen);
	diff_free(d);
	temp_remove(&a);
	temp_remove(&b);
}

static int stop_with_9(const char *path, void *data)
{
	(void)path;
	++*(int *)data;
	return 9;
}

static void test_resolve_is_bounded(void **state)
{
	struct temp_index a;
	struct index_txn *t;
	struct diff_range all = {.open = true};
	struct strings found = {0};
	struct path_key key;
	uint64_t first, last;
	int calls = 0;
	char path[64];

	(void)state;
	temp_open(&a);
	t = begin_write(a.x);
	for (unsigned i = 0; i < DIFF_RESOLVE_ROWS_MAX + 10; i++) {
		snprintf(path, sizeof(path), "f%06u", i);
		put_file(t, path, i);
	}
	path_key(&key, path);
	last = hash_fast(key.bytes, key.len, SEED);
	path_key(&key, "f000000");
	first = hash_fast(key.bytes, key.len, SEED);
	assert_int_equal(
		diff_resolve(t, &all, SEED, (uint64_t[]){first, last, 5}, 3, note, &found), 0);
	assert_int_equal(found.n, 1);
	assert_string_equal(found.v[0], path);
	assert_int_equal(
		diff_resolve(t, &all, SEED, (uint64_t[]){last}, 1, stop_with_9, &calls), 9);
	assert_int_equal(calls, 1);
	strings_free(&found);
	index_abort(t);
	temp_remove(&a);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_random_differences),
		cmocka_unit_test(test_equal_and_empty),
		cmocka_unit_test(test_blocks_between),
		cmocka_unit_test(test_order_with_skipped_levels),
		cmocka_unit_test(test_cost),
		cmocka_unit_test(test_cut_answers),
		cmocka_unit_test(test_hostile_entries),
		cmocka_unit_test(test_hostile_cuts),
		cmocka_unit_test(test_hostile_stream),
		cmocka_unit_test(test_changes_meanwhile),
		cmocka_unit_test(test_resolve_is_bounded),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
