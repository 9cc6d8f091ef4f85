/*
 * transfer/fetch_deferred.c — what waits for the end of the round: deletions, and what must come after them. See
 * transfer/fetch_internal.h.
 *
 * Deletions wait so that they can be counted before the first is made, and so that what was renamed is found here before it
 * goes. They are flushed in descending path order: what lies below a directory first. What lands below something that is no
 * directory comes last: what is in its way is gone by then, or was decided to stay and is put aside.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "tombstones/observe.h"
#include "transfer/fetch_internal.h"

#define DEFERRED_MAX 262144	       /* more are left to the next round */
#define REAPPEARS_KEPT 16	       /* contents of many paths whose answer is remembered */
#define REAPPEARS_MANY 64

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
	return 0;
}

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
	if (!o->deletes)
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

int fetch_flush_deferred(struct session *s)
{
	struct batch *b;
	bool held = false;
	int r = 0;

	if (!s->n_deferred)
		return 0;
	qsort(s->deferred, s->n_deferred, sizeof(struct offer *), compare_deferred);
	if (!s->options.confirmed && s->confirmed_round < s->round)
		r = over_budget(s, &held);
	b = fetch_filling(s);
	if (!b)
		return -ENOMEM;
	for (size_t i = 0; i < s->n_deferred && r == 0; i++) {
		struct offer *o = s->deferred[i];

		o->deferred_once = true;
		if (!held) {
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
	s->n_deferred = s->cap_deferred = 0;
}
