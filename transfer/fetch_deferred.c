/*
 * transfer/fetch_deferred.c — what waits for the end of the round: deletions, and what must come after them. See
 * transfer/fetch_internal.h.
 *
 * Deletions wait so that they can be counted before the first is made, and so that what was renamed is found here before it
 * goes. They are flushed in descending path order: what lies below a directory first. What lands below something that is no
 * directory comes last: what is in its way is gone by then, or was decided to stay and is put aside.
 *
 * What is new and has a content that was here before waits too: where the round deletes a file of this content, the file itself is
 * moved (transfer/apply.h). First come those for which there is none, which copy while all is where it was; then the
 * moves, each next to its deletion. No deletion of a directory comes before them. If a move fails, the next round copies.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "tombstones/observe.h"
#include "transfer/fetch_internal.h"
#include "transfer/place.h"

#define DEFERRED_MAX 262144	       /* more are left to the next round */
#define REAPPEARS_KEPT 16	       /* contents of many paths whose answer is remembered */
#define REAPPEARS_MANY 64
#define COPIED_LOOKS 4 /* paths of a content that are looked at */

int fetch_defer(struct session *s, struct offer *o)
{
	int r;

	if (s->n_deferred >= DEFERRED_MAX) {
		s->deferred_overflow = true;
		s->deferred_deletes += o->deletes;
		s->progress = true;
		fetch_offer_free(s, o);
		s->pending--;
		return 0;
	}
	r = array_reserve(&s->deferred, &s->cap_deferred, s->n_deferred + 1, sizeof(struct offer *));
	if (r < 0)
		return r;
	o->batch = NULL;
	s->deferred[s->n_deferred++] = o;
	if (!o->defer)
		s->waits = o;
	return 0;
}

/* --- moves --- */

struct found {
	struct index_txn *t;
	uint64_t before; /* a sequence */
	unsigned looks;
	bool found;
};

static int was_here(const char *path, void *data)
{
	struct found *state = data;
	cleanup(row_deinit) struct row row = {0};
	int r = index_get(state->t, path, &row);

	state->found = r == 0 && row.seq <= state->before;
	return r < 0 ? r : state->found || ++state->looks == COPIED_LOOKS;
}

int fetch_may_move(const struct session *s, struct index_txn *t, struct offer *o)
{
	struct found state = {.t = t, .before = s->head_seq};
	int r = 0;

	if (o->theirs.content.size && s->copying_round != s->round && s->n_deferred < DEFERRED_MAX / 2)
		r = index_by_content(t, &o->theirs.content, was_here, &state);
	o->copied = state.found;
	return r < 0 ? r : 0;
}

int fetch_check_move(const struct apply_options *options, struct index_txn *t, struct offer *o)
{
	cleanup(row_deinit) struct row row = {0};
	int r = index_get(t, o->move_from, &row);

	if (r < 0)
		return r;
	if (r == 0 && o->action == DECIDE_TAKE && o->lands && place_moves_as(&row, &o->theirs, options->preserve_owner) &&
		!(options->ignore && ignore_match(options->ignore, o->move_from, false)) &&
		place_movable(replica_store(options->replica), o->move_from, &row))
		return 0;
	free(o->move_from);
	o->move_from = NULL;
	return 0;
}

static int compare_content(const struct content *a, const struct content *b)
{
	int c = hash_compare(&a->root, &b->root);

	return c ? c : (a->size > b->size) - (a->size < b->size);
}

/* A deferred offer and the content that it is about. */
struct half {
	struct content content;
	struct offer *offer;
};

static int compare_halves(const void *a, const void *b)
{
	const struct half *x = a, *y = b;

	return compare_content(&x->content, &y->content);
}

/* Files that go, by content. */
static int list_sources(struct session *s, struct half *halves, size_t *ret_n)
{
	struct index_txn *t = NULL;
	int r = index_begin_read(replica_index(s->replica), &t);

	*ret_n = 0;
	for (size_t i = 0; i < s->n_deferred && r >= 0; i++) {
		struct offer *o = s->deferred[i];
		cleanup(row_deinit) struct row row = {0};

		if (!o->deletes)
			continue;
		r = index_get(t, o->path, &row);
		if (r == 0 && row_live(&row) && row.place == ROW_ON_DISK && row.record.kind == RECORD_FILE)
			halves[(*ret_n)++] = (struct half){row.record.content, o};
	}
	index_abort(t);
	qsort(halves, *ret_n, sizeof(*halves), compare_halves);
	return r < 0 ? r : 0;
}

/* The first of its content that is not taken yet. `used` counts those taken, at the first of each content. */
static struct offer *take_source(const struct half *halves, size_t *used, size_t n, const struct content *content)
{
	size_t from = 0, to = n;

	while (from < to) {
		size_t middle = from + (to - from) / 2;

		if (compare_content(&halves[middle].content, content) < 0)
			from = middle + 1;
		else
			to = middle;
	}
	to = from + (from < n ? used[from] : 0);
	if (to >= n || !content_equal(&halves[to].content, content))
		return NULL;
	used[from]++;
	return halves[to].offer;
}

/* Give each that waits for it a deletion whose object it may have. */
static int pair_moves(struct session *s)
{
	struct half *halves = malloc((s->n_deferred + 1) * sizeof(*halves));
	size_t *used = calloc(s->n_deferred + 1, sizeof(*used)), n = 0;
	int r = halves && used ? list_sources(s, halves, &n) : -ENOMEM;

	for (size_t i = 0; i < s->n_deferred && r == 0; i++) {
		struct offer *o = s->deferred[i], *from = o->copied ? take_source(halves, used, n, &o->theirs.content) : NULL;

		if (!from)
			continue;
		o->source = from;
		from->moved = true;
	}
	free(halves);
	free(used);
	return r;
}

/* --- the order, and the budget --- */

static int compare_deferred(const void *a, const void *b)
{
	const struct offer *o = *(struct offer *const *)a, *p = *(struct offer *const *)b;
	struct path_key x, y;

	if (o->under != p->under)
		return o->under ? 1 : -1;
	path_key(&x, o->path);
	path_key(&y, p->path);
	return path_key_compare(&y, &x);
}

struct reappears {
	const struct session *s;
	unsigned looked;
	bool found;
	/* Thousands of equal files must not be looked through for each of them. */
	struct {
		struct content content;
		bool found;
	} kept[REAPPEARS_KEPT];
	size_t n_kept;
};

static int not_deferred(const char *path, void *data)
{
	struct reappears *state = data;
	struct offer key = {.path = (char *)path}, *key_p = &key;

	state->found = !bsearch(&key_p, state->s->deferred, state->s->n_deferred, sizeof(key_p), compare_deferred);
	state->looked++;
	return state->found;
}

static int reappears(struct index_txn *t, const struct content *content, struct reappears *state)
{
	int r;

	for (size_t i = 0; i < state->n_kept && i < REAPPEARS_KEPT; i++)
		if (content_equal(&state->kept[i].content, content)) {
			state->found = state->kept[i].found;
			return 0;
		}
	state->looked = 0;
	state->found = false;
	r = index_by_content(t, content, not_deferred, state);
	if (r >= 0 && state->looked >= REAPPEARS_MANY) {
		state->kept[state->n_kept % REAPPEARS_KEPT].content = *content;
		state->kept[state->n_kept++ % REAPPEARS_KEPT].found = state->found;
	}
	return r;
}

/* Does a deletion count for the budget? Not if its content stands elsewhere, too: that is a rename. */
static int counts(struct reappears *state, struct index_txn *t, const struct offer *o, bool *ret)
{
	struct row row = {0};
	int r;

	*ret = false;
	if (!o->deletes || o->moved)
		return 0;
	r = index_get(t, o->path, &row);
	if (r == 0 && row_live(&row)) {
		state->found = false;
		if (row.record.kind == RECORD_FILE)
			r = reappears(t, &row.record.content, state);
		*ret = !state->found;
	}
	row_deinit(&row);
	return r < 0 ? r : 0;
}

/* Overall, or in one top-level subtree: more deletions than may pass without a person's word? */
static int over_budget(struct session *s, bool *ret)
{
	struct index_txn *t = NULL;
	struct index_counts all = {0};
	struct reappears state = {.s = s};
	char name[FILE_NAME_BYTES_MAX + 1];
	uint64_t total = 0, group = 0;
	int r = index_begin_read(replica_index(s->replica), &t);

	*ret = false;
	if (r == 0)
		r = index_counts(t, &all);
	for (size_t i = 0; i < s->n_deferred && r == 0 && !*ret; i++) {
		const char *path = s->deferred[i]->path;
		size_t top = strcspn(path, "/");
		bool counted, last = i + 1 == s->n_deferred || strncmp(path, s->deferred[i + 1]->path, top) != 0 ||
				    (s->deferred[i + 1]->path[top] && s->deferred[i + 1]->path[top] != '/');
		uint64_t live = 0;

		r = counts(&state, t, s->deferred[i], &counted);
		total += counted;
		group += counted;
		if (r == 0 && last && group > OBSERVE_BUDGET_MIN) {
			snprintf(name, sizeof(name), "%.*s", (int)top, path); /* valid: no longer */
			r = index_count_live(t, name, &live);
			*ret = observe_over_budget(group, live) && live != all.live;
		}
		if (last)
			group = 0;
	}
	index_abort(t);
	*ret = *ret || observe_over_budget(total + s->deferred_deletes, all.live);
	return r;
}

/* What copies, then each move next to its deletion, then all else as it is. held: nothing is moved. */
static int put_in_order(struct session *s, bool held)
{
	struct offer **v = malloc((s->n_deferred + 1) * sizeof(struct offer *));
	size_t n = 0;
	int r = v ? 0 : -ENOMEM;

	for (size_t i = 0; i < s->n_deferred && r == 0; i++)
		if (s->deferred[i]->copied && (held || !s->deferred[i]->source))
			v[n++] = s->deferred[i];
	for (size_t i = 0; i < s->n_deferred && r == 0 && !held; i++) {
		struct offer *o = s->deferred[i];

		if (!o->source)
			continue;
		r = (o->move_from = strdup(o->source->path)) ? 0 : -ENOMEM;
		v[n++] = o;
		v[n++] = o->source;
	}
	for (size_t i = 0; i < s->n_deferred && r == 0; i++)
		if (!s->deferred[i]->copied && (held || !s->deferred[i]->moved))
			v[n++] = s->deferred[i];
	if (r == 0)
		memcpy(s->deferred, v, n * sizeof(struct offer *));
	free(v);
	return r;
}

int fetch_flush_deferred(struct session *s)
{
	struct batch *b;
	bool held = false;
	int r;

	s->waits = NULL;
	if (!s->n_deferred)
		return 0;
	qsort(s->deferred, s->n_deferred, sizeof(struct offer *), compare_deferred);
	r = pair_moves(s);
	if (r == 0 && !s->options.confirmed && s->confirmed_round < s->round)
		r = over_budget(s, &held);
	if (r == 0)
		r = put_in_order(s, held);
	b = fetch_filling(s);
	if (!b)
		return -ENOMEM;
	for (size_t i = 0; i < s->n_deferred && r == 0; i++) {
		struct offer *o = s->deferred[i];

		o->deferred_once = true;
		if (!held || !o->defer) {
			r = fetch_batch_add(b, o);
			s->backlog++;
			if (r == 0)
				s->deferred[i] = NULL; /* the batch's */
			continue;
		}
		o->result = APPLY_HELD;
		r = fetch_settle(s, o);
		s->deferred[i] = NULL;
		fetch_offer_free(s, o);
		s->pending--;
	}
	s->n_deferred = r < 0 ? s->n_deferred : 0;
	if (!b->n)
		batch_free(s, b);
	return r < 0 ? r : fetch_pump(s);
}

void fetch_deferred_reset(struct session *s)
{
	for (size_t i = 0; i < s->n_deferred; i++)
		fetch_offer_free(s, s->deferred[i]);
	free(s->deferred);
	s->deferred = NULL;
	s->waits = NULL;
	s->n_deferred = s->cap_deferred = 0;
}
