/*
 * merkle/diff.c — compare two trees by asking for ever smaller ranges.
 *
 * The walk is a list of disjoint ranges, from the last to the first. A range that was answered is
 * replaced, in its place, by those parts of it that differ:
 *
 *   ours     |A a        |B    |D            |      begin at keys that we know
 *   theirs   |A    |x    |B    |D            |      begin at separators; A, B, D are common
 *            \__ differs _/\=/ \_ if hashes _/
 *                                 differ
 *
 * Between two beginnings that both have, and with no other in between, each side has one block:
 * equal hashes then mean equal records, whatever the shapes beyond. Everything else is asked for
 * one level lower; level 0 is exact. Wrong or outdated answers can thus only make more ranges
 * differ, or hide what the answerer hides anyway.
 *
 * Invariants
 *   – The ranges in the list are disjoint and in descending order (tree first).
 *   – A level-0 range is given out only when no range above it in the list may still yield one.
 *   – Each answer lowers the level, or brings DIFF_ENTRIES_MAX entries: the walk ends.
 */
#include "merkle/diff.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "merkle/index_internal.h"

#define RUN_ENTRIES 32	  /* neighbours that differ are asked for together, up to so many a side */
#define AHEAD_QUEUE 8192  /* with more ranges in the list, or */
#define AHEAD_OUT 16	  /* more asks out above level 0, nothing above level 0 is asked ahead */
#define START_ENTRIES 256 /* a walk begins at the lowest level with about so many entries */
#define NO_MATCH SIZE_MAX

struct item {
	struct item *next; /* the range before it in path order */
	bool out;	   /* given out, and not answered */
	bool open;
	bool split;
	uint8_t which, level;
	uint16_t from_n, to_n;
	uint8_t bytes[]; /* from, to */
};

struct diff {
	uint64_t seed;
	struct item *first; /* owned; the last range in path order */
	size_t n_items;
	size_t n_out_high;	/* given out above level 0 */
	uint64_t n_taken;	/* entries in this walk */
	uint8_t start_level[2]; /* by enum tree_which */
};

uint64_t diff_separator(const struct path_key *key, uint64_t seed)
{
	return hash_fast(key->bytes, key->len, seed);
}

static uint64_t hash_of(const struct hash *hash, uint64_t seed)
{
	return hash_fast(hash->bytes, HASH_BYTES, seed);
}

static bool range_valid(const struct diff_range *r)
{
	return r->level <= TREE_LEVELS && (unsigned)r->which <= TREE_TOMBSTONES &&
	       r->from.len <= PATH_KEY_BYTES_MAX &&
	       (r->open || (r->to.len <= PATH_KEY_BYTES_MAX &&
				   path_key_compare(&r->from, &r->to) <= 0));
}

/* --- answering --- */

struct answer {
	uint64_t seed;
	struct diff_entry *v; /* owned; descending */
	size_t n, cap;
	bool cut;
	struct path_key first;
};

static int answer_add(const struct tree_entry *entry, void *data)
{
	struct answer *a = data;
	int r;

	if (a->n == DIFF_ENTRIES_MAX) {
		a->cut = true;
		return 1;
	}
	r = array_reserve(&a->v, &a->cap, a->n + 1, sizeof(*a->v));
	if (r)
		return r;
	a->v[a->n++] = (struct diff_entry){
		diff_separator(&entry->key, a->seed), hash_of(&entry->hash, a->seed)};
	if (a->n == DIFF_ENTRIES_MAX)
		a->first = entry->key;
	return 0;
}

int diff_answer(struct index_txn *t, const struct diff_range *range, uint64_t seed,
	struct diff_entry **ret, size_t *ret_n, bool *ret_cut, struct path_key *ret_from)
{
	struct answer a = {.seed = seed};
	int r;

	if (!range_valid(range))
		return -EBADMSG;
	r = tree_entries_descending(t, range->which, range->level, &range->from,
		range->open ? NULL : &range->to, answer_add, &a);
	if (r < 0) {
		free(a.v);
		return r;
	}
	for (size_t i = 0; i < a.n / 2; i++) {
		struct diff_entry e = a.v[i];

		a.v[i] = a.v[a.n - 1 - i];
		a.v[a.n - 1 - i] = e;
	}
	*ret = a.v;
	*ret_n = a.n;
	*ret_cut = a.cut;
	if (a.cut)
		*ret_from = a.first;
	return 0;
}

struct resolve {
	struct index_txn *t;
	enum tree_which which;
	uint64_t seed;
	uint64_t *wanted; /* sorted */
	size_t n, n_found, n_seen;
	index_path_emit *emit;
	void *data;
	bool stopped; /* by emit */
};

static int resolve_entry(const struct tree_entry *entry, void *data)
{
	struct resolve *s = data;
	uint64_t separator = diff_separator(&entry->key, s->seed);
	char *path cleanup_free = NULL;
	int r;

	if (++s->n_seen > DIFF_RESOLVE_ROWS_MAX)
		return 1;
	if (!bsearch(&separator, s->wanted, s->n, sizeof(separator), array_compare_u64))
		return 0;
	r = index_row_path(s->t, (enum index_class)s->which, &entry->key, &path);
	if (r)
		return r < 0 ? r : -EBADMSG;
	r = s->emit(path, s->data);
	s->stopped = r != 0;
	return r ? r : ++s->n_found == s->n;
}

int diff_resolve(struct index_txn *t, const struct diff_range *range, uint64_t seed,
	const uint64_t *separators, size_t n, index_path_emit *emit, void *data)
{
	uint64_t *wanted cleanup_free = NULL;
	struct resolve s = {
		.t = t, .which = range->which, .seed = seed, .n = n, .emit = emit, .data = data};
	int r;

	if (!range_valid(range))
		return -EBADMSG;
	if (!n)
		return 0;
	wanted = calloc(n, sizeof(*wanted));
	if (!wanted)
		return -ENOMEM;
	memcpy(wanted, separators, n * sizeof(*wanted));
	qsort(wanted, n, sizeof(*wanted), array_compare_u64);
	s.wanted = wanted;
	r = tree_entries_descending(t, range->which, 0, &range->from,
		range->open ? NULL : &range->to, resolve_entry, &s);
	return r < 0 || s.stopped ? r : 0;
}

/* --- the list of ranges --- */

static struct item *item_new(uint8_t which, uint8_t level, const uint8_t *from, size_t from_n,
	const uint8_t *to, size_t to_n)
{
	struct item *i = calloc(1, sizeof(*i) + from_n + (to ? to_n : 0));

	if (!i)
		return NULL;
	i->which = which;
	i->level = level;
	i->open = !to;
	i->from_n = (uint16_t)from_n;
	if (from_n)
		memcpy(i->bytes, from, from_n);
	if (to) {
		i->to_n = (uint16_t)to_n;
		memcpy(i->bytes + from_n, to, to_n);
	}
	return i;
}

static void items_free(struct item *i)
{
	while (i) {
		struct item *next = i->next;

		free(i);
		i = next;
	}
}

static void item_range(const struct item *i, struct diff_range *ret)
{
	*ret = (struct diff_range){.which = i->which, .level = i->level, .open = i->open, .split = i->split};
	ret->from.len = i->from_n;
	memcpy(ret->from.bytes, i->bytes, i->from_n);
	ret->to.len = i->to_n;
	memcpy(ret->to.bytes, i->bytes + i->from_n, i->to_n);
}

static bool item_is(const struct item *i, const struct diff_range *r)
{
	return i->which == r->which && i->level == r->level && i->open == r->open &&
	       i->from_n == r->from.len && !memcmp(i->bytes, r->from.bytes, i->from_n) &&
	       (i->open || (i->to_n == r->to.len &&
				   !memcmp(i->bytes + i->from_n, r->to.bytes, i->to_n)));
}

int diff_new(struct diff **ret, uint64_t seed)
{
	struct diff *d = calloc(1, sizeof(*d));

	if (!d)
		return -ENOMEM;
	d->seed = seed;
	d->start_level[0] = d->start_level[1] = TREE_LEVELS;
	*ret = d;
	return 0;
}

static void forget(struct diff *d)
{
	items_free(d->first);
	d->first = NULL;
	d->n_items = d->n_out_high = 0;
	d->n_taken = 0;
}

void diff_free(struct diff *d)
{
	if (!d)
		return;
	forget(d);
	free(d);
}

static uint8_t level_for(uint64_t rows)
{
	uint8_t level = 0;

	for (; rows > START_ENTRIES && level < TREE_LEVELS; level++)
		rows >>= TREE_BLOCK_BITS;
	return level;
}

void diff_expect(struct diff *d, uint64_t live, uint64_t tombstones)
{
	d->start_level[TREE_LIVE] = level_for(live);
	d->start_level[TREE_TOMBSTONES] = level_for(tombstones);
}

int diff_start(struct diff *d, bool live, bool tombstones)
{
	struct item **at = &d->first;

	forget(d);
	for (uint8_t which = 0; which < 2; which++) {
		if (which == TREE_LIVE ? !live : !tombstones)
			continue;
		*at = item_new(which, d->start_level[which], NULL, 0, NULL, 0);
		if (!*at) {
			forget(d);
			return -ENOMEM;
		}
		at = &(*at)->next;
		d->n_items++;
	}
	return 0;
}

int diff_next(struct diff *d, struct diff_range *ret)
{
	bool ahead = !d->n_out_high || (d->n_out_high < AHEAD_OUT && d->n_items < AHEAD_QUEUE);
	bool blocked = false; /* something above may still yield level-0 ranges */

	for (struct item *i = d->first; i; i = i->next) {
		if (!i->out && (i->level ? ahead : !blocked)) {
			i->out = true;
			d->n_out_high += i->level > 0;
			item_range(i, ret);
			return 0;
		}
		if (i->level || !i->out)
			blocked = true;
		if (blocked && !ahead)
			break;
	}
	return d->first ? DIFF_IDLE : DIFF_DONE;
}

/* --- learning --- */

void diff_found_deinit(struct diff_found *f)
{
	for (size_t i = 0; i < f->n_ours; i++)
		free(f->ours[i]);
	free(f->ours);
	free(f->theirs);
	*f = (struct diff_found){0};
}

struct position { /* of a separator in the answer */
	uint64_t separator;
	size_t at;
};

struct compare {
	const struct diff *d;
	struct index_txn *t;
	struct diff_range range; /* what the answer covers */
	const struct diff_entry *theirs;
	size_t n_theirs;
	struct position *positions; /* owned; sorted by separator */
	struct index_keys keys;	    /* of our entries */
	struct diff_entry *ours;    /* owned */
	size_t *match;		    /* owned: position in theirs, or NO_MATCH */
	size_t n_ours, cap_ours, cap_match;
	size_t last_match; /* the matches ascend */
};

static void compare_deinit(struct compare *c)
{
	free(c->positions);
	free(c->ours);
	free(c->match);
	index_keys_deinit(&c->keys);
}

static int compare_position(const void *a, const void *b)
{
	return array_compare_u64(
		&((const struct position *)a)->separator, &((const struct position *)b)->separator);
}

static int positions_make(struct compare *c)
{
	c->positions = calloc(c->n_theirs + 1, sizeof(*c->positions));
	if (!c->positions)
		return -ENOMEM;
	for (size_t i = 0; i < c->n_theirs; i++)
		c->positions[i] = (struct position){c->theirs[i].separator, i};
	qsort(c->positions, c->n_theirs, sizeof(*c->positions), compare_position);
	return 0;
}

static int take_own(const struct tree_entry *entry, void *data)
{
	struct compare *c = data;
	struct position wanted = {.separator = diff_separator(&entry->key, c->d->seed)}, *found;
	int r = array_reserve(&c->ours, &c->cap_ours, c->n_ours + 1, sizeof(*c->ours));

	if (!r)
		r = array_reserve(&c->match, &c->cap_match, c->n_ours + 1, sizeof(*c->match));
	if (!r)
		r = index_keys_add(&c->keys, entry->key.bytes, entry->key.len);
	if (r)
		return r;
	found = bsearch(&wanted, c->positions, c->n_theirs, sizeof(wanted), compare_position);
	c->ours[c->n_ours] =
		(struct diff_entry){wanted.separator, hash_of(&entry->hash, c->d->seed)};
	c->match[c->n_ours] = NO_MATCH;
	if (found && (c->last_match == NO_MATCH || found->at > c->last_match))
		c->match[c->n_ours] = c->last_match = found->at;
	c->n_ours++;
	return 0;
}

static int compare_begin(struct compare *c)
{
	int r = positions_make(c);

	c->last_match = NO_MATCH;
	return r ? r
		 : tree_entries(c->t, c->range.which, c->range.level, &c->range.from,
			   c->range.open ? NULL : &c->range.to, take_own, c);
}

static bool same_hash(const struct compare *c, size_t ours)
{
	return c->match[ours] != NO_MATCH && c->theirs[c->match[ours]].hash == c->ours[ours].hash;
}

/* Level 0: what is not the same on both sides, from the last to the first. */
static int find_rows(struct compare *c, struct diff_found *ret)
{
	bool *same cleanup_free = calloc(c->n_theirs + 1, sizeof(*same));
	struct path_key key;
	const uint8_t *p;
	size_t n;
	int r;

	ret->ours = calloc(c->n_ours + 1, sizeof(*ret->ours));
	ret->theirs = calloc(c->n_theirs + 1, sizeof(*ret->theirs));
	if (!same || !ret->ours || !ret->theirs)
		return -ENOMEM;
	for (size_t i = c->n_ours; i-- > 0;) {
		if (same_hash(c, i)) {
			same[c->match[i]] = true;
			continue;
		}
		p = index_keys_at(&c->keys, i, &n);
		key.len = (uint16_t)n;
		memcpy(key.bytes, p, n);
		r = index_row_path(
			c->t, (enum index_class)c->range.which, &key, &ret->ours[ret->n_ours]);
		if (r)
			return r < 0 ? r : -EBADMSG;
		ret->n_ours++;
	}
	for (size_t i = c->n_theirs; i-- > 0;)
		if (!same[i])
			ret->theirs[ret->n_theirs++] = c->theirs[i].separator;
	return 0;
}

static int stop_at_first(const struct tree_entry *entry, void *data)
{
	(void)entry;
	(void)data;
	return 1;
}

struct part { /* of the range, being put together: it differs */
	bool begun;
	const uint8_t *from; /* in compare's keys or range */
	size_t from_n;
	size_t n_ours, n_theirs; /* entries in it */
};

/* End the part at a key (NULL: at the range's end), and put it before *list. */
static int part_end(struct compare *c, struct part *p, const uint8_t *to, size_t to_n,
	struct item **list, size_t *n_items)
{
	uint8_t level = c->range.level - 1;
	struct diff_range own;
	struct item *i;
	int r;

	if (!p->begun)
		return 0;
	p->begun = false;
	if (!to && !c->range.open) {
		to = c->range.to.bytes;
		to_n = c->range.to.len;
	}
	i = item_new((uint8_t)c->range.which, level, p->from, p->from_n, to, to_n);
	if (!i)
		return -ENOMEM;
	i->next = *list;
	*list = i;
	(*n_items)++;
	if (p->n_ours || !level)
		return 0;
	/* All of it is theirs: nothing to compare blocks with, unless one of ours reaches into it.
	 */
	item_range(i, &own);
	r = tree_entries(
		c->t, own.which, 0, &own.from, own.open ? NULL : &own.to, stop_at_first, NULL);
	if (!r)
		i->level = 0;
	return r < 0 ? r : 0;
}

/* A segment that differs: [from, our entry `end`), our entries being begin … end - 1. */
static int segment_differs(struct compare *c, struct part *p, const uint8_t *from, size_t from_n,
	size_t begin, size_t end, size_t n_theirs, struct item **list, size_t *n_items)
{
	size_t n;
	int r;

	if (p->begun &&
		(p->n_ours + end - begin > RUN_ENTRIES || p->n_theirs + n_theirs > RUN_ENTRIES)) {
		r = part_end(c, p, from, from_n, list, n_items);
		if (r)
			return r;
	}
	if (!p->begun)
		*p = (struct part){.begun = true, .from = from, .from_n = from_n};
	for (size_t i = begin; i < end; i++) {
		const uint8_t *key = index_keys_at(&c->keys, i, &n);

		if (p->n_ours == RUN_ENTRIES) {
			r = part_end(c, p, key, n, list, n_items);
			if (r)
				return r;
			*p = (struct part){.begun = true, .from = key, .from_n = n};
		}
		p->n_ours++;
	}
	p->n_theirs += n_theirs;
	return 0;
}

static bool at_range_begin(const struct compare *c, size_t ours)
{
	size_t n;
	const uint8_t *key;

	if (ours == c->n_ours)
		return false;
	key = index_keys_at(&c->keys, ours, &n);
	return !index_key_compare(key, n, c->range.from.bytes, c->range.from.len);
}

/* Above level 0: the parts that differ, in descending order. On failure *list has what was made. */
static int find_parts(struct compare *c, struct item **list, size_t *n_items)
{
	const uint8_t *from = c->range.from.bytes;
	size_t from_n = c->range.from.len, begin = 0, begin_theirs = 0, end, end_theirs;
	bool common = false; /* the segment begins where both have a beginning */
	struct part part = {0};
	int r = 0;

	for (;;) {
		bool equal;

		for (end = common ? begin + 1 : begin;
			end < c->n_ours && c->match[end] == NO_MATCH;)
			end++;
		end_theirs = end < c->n_ours ? c->match[end] : c->n_theirs;
		if (common)
			equal = end == begin + 1 && end_theirs == begin_theirs + 1 &&
				same_hash(c, begin);
		else /* before the first in common: equal if there is no room for anything */
			equal = end == 0 && end_theirs == 0 && (!from_n || at_range_begin(c, end));
		if (equal)
			r = part_end(c, &part, from, from_n, list, n_items);
		else
			r = segment_differs(c, &part, from, from_n, begin, end,
				end_theirs - begin_theirs, list, n_items);
		if (r || end == c->n_ours)
			break;
		common = true;
		begin = end;
		begin_theirs = end_theirs;
		from = index_keys_at(&c->keys, begin, &from_n);
	}
	return r ? r : part_end(c, &part, NULL, 0, list, n_items);
}

/* Put the list in the place of *at, which goes. */
static void replace_item(struct diff *d, struct item **at, struct item *list, size_t n)
{
	struct item *gone = *at, **end = &list;

	while (*end)
		end = &(*end)->next;
	*end = gone->next;
	*at = list;
	d->n_items += n;
	d->n_items--;
	d->n_out_high -= gone->level > 0;
	free(gone);
}

static struct item **find_out(struct diff *d, const struct diff_range *range)
{
	for (struct item **at = &d->first; *at; at = &(*at)->next)
		if ((*at)->out && item_is(*at, range))
			return at;
	return NULL;
}

/* What was cut away from the beginning of the range stands behind its parts. */
static int add_rest(struct item **list, const struct diff_range *range, const struct path_key *from,
	size_t *n_items)
{
	struct item *rest = item_new((uint8_t)range->which, range->level, range->from.bytes,
		range->from.len, from->bytes, from->len);

	if (!rest)
		return -ENOMEM;
	while (*list)
		list = &(*list)->next;
	*list = rest;
	(*n_items)++;
	return 0;
}

static bool cut_valid(const struct diff_range *range, size_t n, const struct path_key *from)
{
	return n == DIFF_ENTRIES_MAX && from && from->len <= PATH_KEY_BYTES_MAX &&
	       path_key_compare(from, &range->from) > 0 &&
	       (range->open || path_key_compare(from, &range->to) < 0);
}

int diff_learn(struct diff *d, struct index_txn *t, const struct diff_range *range,
	const struct diff_entry *entries, size_t n, bool cut, const struct path_key *from,
	struct diff_found *ret)
{
	struct compare c cleanup(compare_deinit) = {
		.d = d, .t = t, .range = *range, .theirs = entries, .n_theirs = n};
	struct diff_found found cleanup(diff_found_deinit) = {0};
	struct item *list = NULL, **at = find_out(d, range);
	size_t n_items = 0;
	int r;

	if (!at || n > DIFF_ENTRIES_MAX || (cut && !cut_valid(range, n, from)))
		return -EBADMSG;
	d->n_taken += n;
	if (d->n_taken > DIFF_WALK_ENTRIES_MAX)
		return -E2BIG;
	if (cut)
		c.range.from = *from;
	r = compare_begin(&c);
	if (!r)
		r = range->level ? find_parts(&c, &list, &n_items) : find_rows(&c, &found);
	if (!r && cut)
		r = add_rest(&list, range, from, &n_items);
	if (!r && d->n_items + n_items > DIFF_QUEUE_MAX)
		r = -E2BIG;
	if (r) {
		items_free(list);
		return r;
	}
	replace_item(d, at, list, n_items);
	*ret = found;
	found = (struct diff_found){0};
	return 0;
}

int diff_split(struct diff *d, const struct diff_range *range, const struct diff_range *parts, size_t n)
{
	struct item *list = NULL, **at = find_out(d, range);

	if (!at || range->level)
		return -EBADMSG;
	if (d->n_items + n > DIFF_QUEUE_MAX)
		return -E2BIG;
	for (size_t i = 0; i < n; i++) {
		const struct diff_range *p = &parts[i];
		struct item *item = item_new((uint8_t)range->which, 0, p->from.bytes, p->from.len,
			p->open ? NULL : p->to.bytes, p->to.len);

		if (!item) {
			items_free(list);
			return -ENOMEM;
		}
		item->split = p->split;
		item->next = list;
		list = item;
	}
	replace_item(d, at, list, n);
	return 0;
}
