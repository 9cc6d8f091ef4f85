/*
 * tests/sim/trees.c — all pairs of small trees, with kinds, brought together under the real rules, and judged exactly.
 *
 * A tree has up to 4 nodes, each a directory, a file with content x or y, or a symlink; the names in a directory are from an
 * alphabet of 1 to 4. Trees that differ in the names alone are one tree, and so are such pairs: with 4 names, no tree of 4
 * nodes is left out.
 *
 *   apart   two sides make a tree each; neither knows of the other
 *   one     both have a tree; one side makes any other of it
 *   both    both have a tree of up to 2 nodes; each makes any tree of up to 3 of it
 *   edits   both have a tree of up to 3 nodes; each does one thing of all that can be done: remove, write, change of kind, rename
 *           (over what is there, too), chmod, touch, nothing
 *
 * Then there are sessions, some of which are cut, in batches of any size, with or without a third replica, which had the
 * first tree or nothing; then tombstones are purged, and all meet again. The outcome of each path is known (judge_path); in the
 * end, and once more after the purge, everybody must have exactly that:
 *
 *   diverged   records differ, or exceptions are left (P1)       lost      what a side wrote is nowhere (P2)
 *   back       what was removed, and not changed, is there (P3)   vanished  what nobody touched is gone (P4)
 *   wrong      a path shows neither side's                        needless  a conflict copy of what was in no conflict
 *   mode       a chmod that nothing contradicts did not stand
 *
 * usage: trees [-f] [-j JOBS] [-n NAMES] [-s SEED] [-e EVERY] [apart|one|both|edits]…      -f: until the first that is wrong
 *        trees -c BASE,LEFT,RIGHT [-s SEED]      one case, traced         -e: one of so many cases only
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/error.h"
#include "tests/sim/jobs.h"
#include "tests/sim/rules_world.h"
#include "tombstones/conflict.h"

#define NODES_MAX 4
#define NAMES_MAX 4
#define RENAMINGS_MAX 24 /* of 4 names */
#define CELLS_MAX (3 * NODES_MAX)
#define TEXT_BYTES 128
#define ROUNDS_MAX 12
#define CUT 20	 /* percent: a session that is cut ends before each path */
#define TOLD_MAX 10 /* failures of a process that are shown */

/* --- trees --- */

/*
 * A path is up to four names of 3 bits, the first one on top, 0: none; so numbers are in the order of paths. A node is its
 * path and, in the lowest 2 bits, its kind. A tree is its nodes, in order, 16 bits each, the first one on top.
 */
typedef uint16_t path_t;
typedef uint64_t tree_t;

enum kind { ABSENT, DIRECTORY, FILE_X, FILE_Y, SYMLINK, KINDS };

struct nodes {
	int n;
	uint16_t v[NODES_MAX + 1];
};

static path_t node_path(uint16_t node)
{
	return node >> 2;
}

static enum kind node_kind(uint16_t node)
{
	return (enum kind)((node & 3) + 1);
}

static uint16_t node_of(path_t path, enum kind kind)
{
	return (uint16_t)(path << 2 | (kind - 1));
}

static int depth(path_t path)
{
	int n = 0;

	for (; path; path = (path_t)(path << 3 & 0xfff))
		n++;
	return n;
}

static path_t above(path_t path)
{
	return (path_t)(path & ~(07 << (12 - 3 * depth(path))));
}

/* The place with that name below: 0 if it would be too deep. */
static path_t below(path_t path, unsigned name)
{
	int d = depth(path);

	return d == NODES_MAX ? 0 : (path_t)(path | name << (9 - 3 * d));
}

static bool is_below(path_t path, path_t upper)
{
	for (path = path ? above(path) : 0; path; path = above(path))
		if (path == upper)
			return true;
	return false;
}

static struct nodes unpack(tree_t t)
{
	struct nodes ret = {0};

	for (int i = 0; i < NODES_MAX; i++) {
		uint16_t node = (uint16_t)(t >> (48 - 16 * i));

		if (node)
			ret.v[ret.n++] = node;
	}
	return ret;
}

static tree_t pack(struct nodes *s)
{
	tree_t t = 0;

	for (int i = 1; i < s->n; i++)
		for (int k = i; k > 0 && s->v[k - 1] > s->v[k]; k--) {
			uint16_t swapped = s->v[k];

			s->v[k] = s->v[k - 1];
			s->v[k - 1] = swapped;
		}
	for (int i = 0; i < s->n; i++)
		t |= (tree_t)s->v[i] << (48 - 16 * i);
	return t;
}

static enum kind kind_at(tree_t t, path_t path)
{
	struct nodes s = unpack(t);

	for (int i = 0; i < s.n; i++)
		if (node_path(s.v[i]) == path)
			return node_kind(s.v[i]);
	return ABSENT;
}

static void path_text(char *ret, path_t path)
{
	for (; path; path = (path_t)(path << 3 & 0xfff)) {
		*ret++ = (char)('a' + (path >> 9) - 1);
		*ret++ = '/';
	}
	*--ret = '\0';
}

static const char *tree_text(char *ret, tree_t t)
{
	static const char *const marks[] = {"", "/", "=x", "=y", "@"};
	struct nodes s = unpack(t);
	size_t at = 0;

	ret[at++] = '{';
	for (int i = 0; i < s.n; i++) {
		char text[2 * NODES_MAX];

		path_text(text, node_path(s.v[i]));
		at += (size_t)snprintf(ret + at, TEXT_BYTES - at, "%s%s%s", i ? " " : "", text, marks[node_kind(s.v[i])]);
	}
	snprintf(ret + at, TEXT_BYTES - at, "}");
	return ret;
}

/* --- what a side does --- */

enum touch { UNTOUCHED, CHMOD, TOUCH };

/* It makes this tree of what it has; or touches one node. */
struct goal {
	tree_t tree;
	path_t touched; /* 0: none */
	enum touch touch;
};

static int goal_compare(const struct goal *a, const struct goal *b)
{
	if (a->tree != b->tree)
		return a->tree < b->tree ? -1 : 1;
	if (a->touched != b->touched)
		return a->touched < b->touched ? -1 : 1;
	return (int)a->touch - (int)b->touch;
}

/* A growing list of goals. */
struct goals {
	struct goal *v;
	size_t n, cap;
};

static void add(struct goals *g, tree_t tree, path_t touched, enum touch touch)
{
	struct goal goal = {tree, touched, touch};

	if (array_reserve(&g->v, &g->cap, g->n + 1, sizeof(*g->v)) < 0)
		abort();
	g->v[g->n++] = goal;
}

static int compare_goals(const void *a, const void *b)
{
	return goal_compare(a, b);
}

static void unique(struct goals *g)
{
	size_t n = 0;

	qsort(g->v, g->n, sizeof(*g->v), compare_goals);
	for (size_t i = 0; i < g->n; i++)
		if (!n || goal_compare(&g->v[n - 1], &g->v[i]))
			g->v[n++] = g->v[i];
	g->n = n;
}

/* All trees that have these nodes and up to n - s.n more, behind them in the order. */
static void all_trees(struct goals *g, struct nodes s, int n, unsigned names)
{
	path_t last = s.n ? node_path(s.v[s.n - 1]) : 0;

	add(g, pack(&s), 0, UNTOUCHED);
	if (s.n == n)
		return;
	for (int i = -1; i < s.n; i++) {
		path_t upper = i < 0 ? 0 : node_path(s.v[i]);

		if (i >= 0 && node_kind(s.v[i]) != DIRECTORY)
			continue;
		for (unsigned name = 1; name <= names; name++)
			for (enum kind kind = DIRECTORY; kind < KINDS && below(upper, name) > last; kind++) {
				struct nodes more = s;

				more.v[more.n++] = node_of(below(upper, name), kind);
				all_trees(g, more, n, names);
			}
	}
}

static void remove_at(struct nodes *s, path_t path)
{
	int n = 0;

	for (int i = 0; i < s->n; i++)
		if (node_path(s->v[i]) != path && !is_below(node_path(s->v[i]), path))
			s->v[n++] = s->v[i];
	s->n = n;
}

static void add_if_fits(struct goals *g, struct nodes *s)
{
	if (s->n <= NODES_MAX)
		add(g, pack(s), 0, UNTOUCHED);
}

/* All that can be written at a place, or moved to it. */
static void edits_at(struct goals *g, tree_t base, path_t place)
{
	const struct nodes was = unpack(base);

	for (enum kind kind = DIRECTORY; kind < KINDS; kind++) {
		struct nodes s = was;

		if (kind_at(base, place) == kind)
			continue;
		remove_at(&s, place);
		s.v[s.n++] = node_of(place, kind);
		add_if_fits(g, &s);
	}
	for (int i = 0; i < was.n; i++) {
		path_t from = node_path(was.v[i]);
		struct nodes s = was;
		bool deep = false;

		if (from == place || is_below(place, from) || is_below(from, place))
			continue;
		remove_at(&s, place);
		remove_at(&s, from);
		for (int k = 0; k < was.n; k++) {
			path_t p = node_path(was.v[k]);
			int down = 3 * (depth(place) - depth(from)); /* how far its names move */
			path_t rest = (path_t)(p & ~from);

			if (p != from && !is_below(p, from))
				continue;
			deep = deep || depth(p) * 3 + down > 3 * NODES_MAX;
			rest = (path_t)(down > 0 ? rest >> down : rest << -down);
			s.v[s.n++] = node_of((path_t)(place | rest), node_kind(was.v[k]));
		}
		if (!deep)
			add_if_fits(g, &s);
	}
}

static void all_edits(struct goals *g, tree_t base, unsigned names)
{
	const struct nodes was = unpack(base);

	add(g, base, 0, UNTOUCHED);
	for (int i = -1; i < was.n; i++) {
		path_t upper = i < 0 ? 0 : node_path(was.v[i]);
		enum kind kind = i < 0 ? DIRECTORY : node_kind(was.v[i]);
		struct nodes s = was;

		for (unsigned name = 1; kind == DIRECTORY && name <= names; name++)
			if (below(upper, name))
				edits_at(g, base, below(upper, name));
		if (i < 0)
			continue;
		remove_at(&s, upper);
		add_if_fits(g, &s);
		if (kind != SYMLINK)
			add(g, base, upper, CHMOD);
		if (kind != DIRECTORY)
			add(g, base, upper, TOUCH);
	}
	unique(g);
}

/* --- names do not matter --- */

struct renamings {
	int n;
	uint8_t to[RENAMINGS_MAX][NAMES_MAX + 1]; /* name → name; 0 → 0 */
};

static void all_renamings(struct renamings *ret, unsigned names, unsigned done, const uint8_t *to)
{
	uint8_t more[NAMES_MAX + 1];

	if (done == names) {
		memcpy(ret->to[ret->n++], to, sizeof(more));
		return;
	}
	for (uint8_t name = 1; name <= names; name++) {
		memcpy(more, to, sizeof(more));
		if (memchr(more + 1, name, done))
			continue;
		more[done + 1] = name;
		all_renamings(ret, names, done + 1, more);
	}
}

static path_t rename_path(path_t path, const uint8_t *to)
{
	return (path_t)(to[path >> 9] << 9 | to[path >> 6 & 7] << 6 | to[path >> 3 & 7] << 3 | to[path & 7]);
}

static struct goal rename_goal(const struct goal *g, const uint8_t *to)
{
	struct nodes s = unpack(g->tree);

	for (int i = 0; i < s.n; i++)
		s.v[i] = node_of(rename_path(node_path(s.v[i]), to), node_kind(s.v[i]));
	return (struct goal){pack(&s), rename_path(g->touched, to), g->touch};
}

/* Is it the least of those that are one with it? ret: the renamings that leave it as it is. */
static bool is_least(const struct goal *g, const struct renamings *r, struct renamings *ret)
{
	ret->n = 0;
	for (int i = 0; i < r->n; i++) {
		struct goal other = rename_goal(g, r->to[i]);
		int c = goal_compare(&other, g);

		if (c < 0)
			return false;
		if (!c)
			memcpy(ret->to[ret->n++], r->to[i], sizeof(r->to[i]));
	}
	return true;
}

/* --- the judge --- */

enum verdict { DIVERGED, LOST, BACK, VANISHED, WRONG, NEEDLESS, MODE, VERDICTS };
static const char *const verdict_names[] = {
	"P1 diverged", "P2 lost", "P3 back", "P4 vanished", "wrong content", "needless copy", "chmod lost"};

struct cell {
	path_t path;
	enum kind base, left, right;
	bool live; /* in the end; also as a directory, for what is below */
};

struct trial {
	struct rules_world *w;
	tree_t base;
	struct goal left, right;
	struct cell cells[CELLS_MAX]; /* descending: what lies below first */
	int n_cells;
	int objects; /* live, and no directories, that there must be */
	bool bad[VERDICTS];
};

static void mark(struct trial *t, enum verdict verdict, const char *path)
{
	rules_trace(t->w, "%s: %s", verdict_names[verdict], path);
	t->bad[verdict] = true;
}

static void add_cells(struct trial *t, tree_t tree)
{
	struct nodes s = unpack(tree);

	for (int i = 0; i < s.n; i++) {
		path_t path = node_path(s.v[i]);
		int at = t->n_cells;

		for (int k = 0; k < t->n_cells; k++)
			if (t->cells[k].path == path)
				at = -1;
		if (at < 0)
			continue;
		for (; at > 0 && t->cells[at - 1].path < path; at--)
			t->cells[at] = t->cells[at - 1];
		t->cells[at] = (struct cell){path, kind_at(t->base, path), kind_at(t->left.tree, path), kind_at(t->right.tree, path), false};
		t->n_cells++;
	}
}

static enum kind shown(const struct rules_replica *r, int p)
{
	const struct record *record = &r->entries[p].record;

	if (!rules_live(r, p))
		return ABSENT;
	return record->kind == RECORD_DIRECTORY ? DIRECTORY : (enum kind)rules_content(record);
}

static const uint8_t record_kinds[] = {0, RECORD_DIRECTORY, RECORD_FILE, RECORD_FILE, RECORD_SYMLINK};

/* A copy of what lost there. */
static void judge_copy(struct trial *t, const char *path, enum kind kind)
{
	struct hash content = {.bytes = {[5] = (uint8_t)kind}}; /* as rules_content() has it */
	cleanup_free char *name = conflict_path(path, &content, 1);

	if (!name)
		abort();
	t->objects++;
	if (shown(&t->w->replicas[0], rules_path(t->w, name)) != kind)
		mark(t, LOST, name);
}

static void judge_mode(struct trial *t, const struct cell *c, int p)
{
	bool changed = (t->left.touch == CHMOD && t->left.touched == c->path) || (t->right.touch == CHMOD && t->right.touched == c->path);
	uint8_t kind = record_kinds[c->base];

	if (changed && record_kinds[c->left] == kind && record_kinds[c->right] == kind && t->w->replicas[0].entries[p].record.mode != 0600)
		mark(t, MODE, t->w->paths[p]);
}

/*
 * Three ways. What one side changed stands; if both did, a change beats a deletion, and of two changes each is there: at the
 * path or, if it has content, beside it. A directory is where something is below.
 */
static void judge_path(struct trial *t, struct cell *c)
{
	const struct rules_replica *r = &t->w->replicas[0];
	enum kind candidates[2] = {c->left, c->right}, is;
	bool full = false, written = c->left != c->base || c->right != c->base;
	char text[2 * NODES_MAX];
	int n = 2, p;

	path_text(text, c->path);
	p = rules_path(t->w, text);
	is = shown(r, p);
	for (struct cell *b = t->cells; b < c; b++)
		full = full || (b->live && is_below(b->path, c->path));
	if (c->left == c->right || c->right == c->base || (c->left != c->base && !c->right))
		n = 1;
	else if (c->left == c->base || !c->left) {
		candidates[0] = c->right;
		n = 1;
	}
	if (n == 1 && !candidates[0])
		n = 0;
	c->live = n || full;
	if (full && rules_kind(t->w, r, p) != RECORD_DIRECTORY)
		mark(t, is ? WRONG : LOST, text);
	else if (!full && is != candidates[0] && (n != 2 || is != candidates[1]) && (n || is))
		mark(t, !n ? BACK : is ? WRONG : written ? LOST : VANISHED, text);
	t->objects += is > DIRECTORY;
	for (int i = 0; i < n; i++) {
		bool object = candidates[i] != DIRECTORY;

		/* A directory that loses to an object leaves nothing, and no copy is made where it is the object that stays. */
		if (object && is != candidates[i] && (full || is))
			judge_copy(t, text, candidates[i]);
	}
	if (is && record_kinds[is] == record_kinds[c->base])
		judge_mode(t, c, p);
}

static void judge_convergence(struct trial *t)
{
	const struct rules_world *w = t->w;
	const struct rules_replica *first = &w->replicas[0];

	for (size_t i = 0; i < w->n; i++) {
		const struct rules_replica *r = &w->replicas[i];

		if (r->knowledge.n)
			mark(t, DIVERGED, "exceptions are left");
		for (int p = 0; p < w->n_paths; p++)
			if (rules_live(first, p) != rules_live(r, p) ||
				(rules_live(r, p) && !record_equal(&first->entries[p].record, &r->entries[p].record)))
				mark(t, DIVERGED, w->paths[p]);
	}
}

static void judge(struct trial *t)
{
	const struct rules_replica *r = &t->w->replicas[0];
	int objects = 0;

	t->objects = 0;
	judge_convergence(t);
	for (int i = 0; i < t->n_cells; i++)
		judge_path(t, &t->cells[i]);
	for (int p = 0; p < r->top; p++)
		objects += shown(r, p) > DIRECTORY;
	if (objects > t->objects)
		mark(t, NEEDLESS, "more than there should be");
}

/* --- a trial --- */

static void write_node(struct rules_world *w, struct rules_replica *r, path_t path, enum kind kind)
{
	struct rules_edit e = {
		.change = kind ? RULES_STATE : RULES_DELETE,
		.kind = record_kinds[kind],
		.content = kind > DIRECTORY ? kind : 0,
		.mode = kind == SYMLINK ? 0777 : 0644,
		.mtime_ns = (int64_t)rules_below(w, 3),
		.user = true,
	};
	char text[2 * NODES_MAX];

	path_text(text, path);
	rules_event(w, r, rules_path(w, text), &e);
}

static void touch_node(struct rules_world *w, struct rules_replica *r, const struct goal *g)
{
	struct rules_edit e = {
		.change = g->touch == CHMOD ? RULES_ATTRIBUTES : RULES_MTIME,
		.kind = record_kinds[kind_at(g->tree, g->touched)],
		.mode = 0600,
		.mtime_ns = 7,
		.user = true,
	};
	char text[2 * NODES_MAX];

	path_text(text, g->touched);
	rules_event(w, r, rules_path(w, text), &e);
}

/* A user makes one tree of another, as a scan would see it. */
static void become(struct rules_world *w, struct rules_replica *r, tree_t from, const struct goal *g)
{
	struct nodes old = unpack(from), new = unpack(g->tree);

	for (int i = old.n - 1; i >= 0; i--)
		if (!kind_at(g->tree, node_path(old.v[i])))
			write_node(w, r, node_path(old.v[i]), ABSENT);
	for (int i = 0; i < new.n; i++)
		if (kind_at(from, node_path(new.v[i])) != node_kind(new.v[i]))
			write_node(w, r, node_path(new.v[i]), node_kind(new.v[i]));
	if (g->touch)
		touch_node(w, r, g);
}

/* Another replica that has been given all of it: the same records, the same knowledge, events of its own to come. */
static void give(struct rules_world *w, struct rules_replica *to, const struct rules_replica *from)
{
	rules_copy(w, to, from);
	to->own = to->last = (struct version_dot){0, 0};
}

static void meet(struct rules_world *w, size_t a, size_t b, unsigned cut)
{
	rules_session_finish(w, rules_session_new(w, &w->replicas[a], &w->replicas[b], RULES_WALK, cut));
}

static void meet_any(struct rules_world *w)
{
	size_t a = rules_below(w, w->n);

	meet(w, a, (a + 1 + rules_below(w, w->n - 1)) % w->n, CUT);
}

static uint64_t changes(const struct rules_world *w)
{
	uint64_t n = 0;

	for (size_t i = 0; i < w->n; i++)
		n += w->replicas[i].changes;
	return n;
}

static void settle(struct rules_world *w)
{
	uint64_t before = UINT64_MAX;

	for (int round = 0; round < ROUNDS_MAX && before != changes(w); round++) {
		before = changes(w);
		for (size_t a = 0; a < w->n; a++)
			for (size_t b = a + 1; b < w->n; b++)
				meet(w, a, b, 0);
	}
}

static uint64_t mix(uint64_t h, uint64_t x)
{
	h = (h ^ x) * UINT64_C(0x9e3779b97f4a7c15);
	return h ^ h >> 29;
}

static bool trial_run(struct trial *t, uint64_t seed)
{
	struct rules_world *w = t->w;
	uint64_t random = mix(mix(mix(seed, t->base), t->left.tree + t->left.touched * 4u + t->left.touch),
		t->right.tree + t->right.touched * 4u + t->right.touch);
	uint64_t before;
	bool wrong = false;

	rules_begin(w, 2, seed, random);
	w->n += rules_percent(w, 25);
	become(w, &w->replicas[0], 0, &(struct goal){.tree = t->base});
	for (size_t i = 1; i < w->n; i++)
		give(w, &w->replicas[i], &w->replicas[0]);
	become(w, &w->replicas[0], t->base, &t->left);
	become(w, &w->replicas[1], t->base, &t->right);
	for (size_t cuts = rules_below(w, 3); cuts > 0; cuts--)
		meet_any(w);
	settle(w);
	t->n_cells = 0;
	memset(t->bad, 0, sizeof(t->bad));
	add_cells(t, t->base);
	add_cells(t, t->left.tree);
	add_cells(t, t->right.tree);
	judge(t);
	before = changes(w);
	for (size_t i = 0; i < w->n; i++)
		rules_purge(w, &w->replicas[i]);
	if (before != changes(w)) {
		settle(w);
		judge(t);
	}
	for (size_t v = 0; v < VERDICTS; v++)
		wrong = wrong || t->bad[v];
	return wrong;
}

/* --- campaigns --- */

enum campaign_name { APART, ONE, BOTH, EDITS, CAMPAIGNS };
static const char *const campaign_names[] = {"apart", "one", "both", "edits"};

struct tally {
	uint64_t cases, wrong, bad[VERDICTS];
};

struct campaign {
	unsigned jobs, names;
	uint64_t seed, every;
	bool until_wrong, chosen[CAMPAIGNS];
	struct tally (*tallies)[CAMPAIGNS]; /* of each job; shared */
};

/* A campaign as one process sees it. */
struct worker {
	const struct campaign *c;
	unsigned job;
	struct tally *tally;
	struct trial trial;
	struct renamings all;
	uint64_t n, told;
	bool over;
};

static void tell(const struct worker *k)
{
	const struct trial *t = &k->trial;
	char base[TEXT_BYTES], left[TEXT_BYTES], right[TEXT_BYTES];
	static const char *const touches[] = {"", ", chmod", ", touch"};

	printf("%s -> %s%s | %s%s:", tree_text(base, t->base), tree_text(left, t->left.tree), touches[t->left.touch],
		tree_text(right, t->right.tree), touches[t->right.touch]);
	for (size_t v = 0; v < VERDICTS; v++)
		if (t->bad[v])
			printf(" %s;", verdict_names[v]);
	printf(" -c %" PRIx64 ",%" PRIx64 ".%x.%x,%" PRIx64 ".%x.%x -s %" PRIu64 "\n", t->base, t->left.tree, t->left.touched,
		t->left.touch, t->right.tree, t->right.touched, t->right.touch, k->c->seed);
}

static void try(struct worker *k, tree_t base, const struct goal *left, const struct goal *right)
{
	struct trial *t = &k->trial;
	uint64_t i = k->n++;

	if (i % k->c->every || i / k->c->every % k->c->jobs != k->job || k->over)
		return;
	t->base = base;
	t->left = *left;
	t->right = *right;
	k->tally->cases++;
	if (!trial_run(t, k->c->seed))
		return;
	k->tally->wrong++;
	for (size_t v = 0; v < VERDICTS; v++)
		k->tally->bad[v] += t->bad[v];
	if (k->told++ < TOLD_MAX)
		tell(k);
	k->over = k->c->until_wrong;
}

/* Each pair of two lists, from one tree, names aside. */
static void try_pairs(struct worker *k, tree_t base, const struct renamings *base_r, const struct goals *left, const struct goals *right)
{
	for (size_t i = 0; i < left->n && !k->over; i++) {
		struct renamings left_r, right_r;

		if (!is_least(&left->v[i], base_r, &left_r))
			continue;
		for (size_t j = 0; j < right->n && !k->over; j++)
			if (is_least(&right->v[j], &left_r, &right_r))
				try(k, base, &left->v[i], &right->v[j]);
	}
}

static void run_campaign(struct worker *k, enum campaign_name name)
{
	static const int nodes[] = {NODES_MAX, NODES_MAX, 2, 3}, becomes[] = {0, NODES_MAX, 3, 0};
	struct goals bases = {0}, goals = {0};
	struct renamings r;

	all_trees(&bases, (struct nodes){0}, nodes[name], k->c->names);
	all_trees(&goals, (struct nodes){0}, becomes[name], k->c->names);
	if (name == APART)
		try_pairs(k, 0, &k->all, &bases, &bases);
	for (size_t i = 0; i < bases.n && name != APART && !k->over; i++) {
		struct goals only = {.v = &bases.v[i], .n = 1}, edits = {0};
		tree_t base = bases.v[i].tree;

		if (!is_least(&bases.v[i], &k->all, &r))
			continue;
		if (name == EDITS)
			all_edits(&edits, base, k->c->names);
		if (name == EDITS)
			try_pairs(k, base, &r, &edits, &edits);
		else
			try_pairs(k, base, &r, &goals, name == ONE ? &only : &goals);
		free(edits.v);
	}
	free(bases.v);
	free(goals.v);
}

static void work(unsigned job, void *data)
{
	const struct campaign *c = data;
	struct worker k = {.c = c, .job = job};

	k.trial.w = rules_new();
	all_renamings(&k.all, c->names, 0, (uint8_t[NAMES_MAX + 1]){0});
	for (enum campaign_name name = 0; name < CAMPAIGNS; name++) {
		k.tally = &c->tallies[job][name];
		if (c->chosen[name])
			run_campaign(&k, name);
	}
	rules_free(k.trial.w);
}

static uint64_t run(struct campaign *c)
{
	struct timespec began, now;
	uint64_t wrong, cases = 0;

	c->tallies = jobs_shared(c->jobs * sizeof(*c->tallies));
	clock_gettime(CLOCK_MONOTONIC, &began);
	wrong = jobs_run(c->jobs, work, c);
	clock_gettime(CLOCK_MONOTONIC, &now);
	for (enum campaign_name name = 0; name < CAMPAIGNS; name++) {
		struct tally all = {0};

		for (unsigned j = 0; j < c->jobs; j++) {
			all.cases += c->tallies[j][name].cases;
			all.wrong += c->tallies[j][name].wrong;
			for (size_t v = 0; v < VERDICTS; v++)
				all.bad[v] += c->tallies[j][name].bad[v];
		}
		if (!c->chosen[name])
			continue;
		printf("%-6s %" PRIu64 " cases, %" PRIu64 " wrong\n", campaign_names[name], all.cases, all.wrong);
		for (size_t v = 0; v < VERDICTS; v++)
			if (all.bad[v])
				printf("       %s: %" PRIu64 "\n", verdict_names[v], all.bad[v]);
		cases += all.cases;
		wrong += all.wrong;
	}
	printf("%" PRIu64 " pairs of trees in %.1f s\n", cases,
		(double)(now.tv_sec - began.tv_sec) + (double)(now.tv_nsec - began.tv_nsec) / 1e9);
	return wrong;
}

/* --- one case --- */

static bool goal_parse(struct goal *ret, char **text)
{
	ret->tree = strtoull(*text, text, 16);
	if (**text == '.')
		ret->touched = (path_t)strtoul(*text + 1, text, 16);
	if (**text == '.')
		ret->touch = (enum touch)strtoul(*text + 1, text, 16);
	return ret->touch <= TOUCH;
}

static int run_one(const struct campaign *c, char *text)
{
	struct tally tally = {0};
	struct worker k = {.c = c, .tally = &tally};
	struct trial *t = &k.trial;
	bool wrong;

	t->base = strtoull(text, &text, 16);
	if (*text++ != ',' || !goal_parse(&t->left, &text) || *text++ != ',' || !goal_parse(&t->right, &text) || *text) {
		fprintf(stderr, "trees: -c BASE,LEFT,RIGHT as a failure shows them\n");
		return 2;
	}
	t->w = rules_new();
	t->w->trace = true;
	wrong = trial_run(t, c->seed);
	tell(&k);
	rules_free(t->w);
	return wrong;
}

static int usage(void)
{
	fprintf(stderr, "usage: trees [-f] [-j JOBS] [-n NAMES] [-s SEED] [-e EVERY] [apart|one|both|edits]...\n"
			"       trees -c BASE,LEFT,RIGHT [-s SEED]\n");
	return 2;
}

static bool choose(struct campaign *c, const char *name)
{
	bool known = false;

	for (enum campaign_name i = 0; i < CAMPAIGNS; i++)
		if (!strcmp(name, campaign_names[i]))
			known = c->chosen[i] = true;
	return known;
}

int main(int argc, char **argv)
{
	struct campaign c = {.jobs = 1, .names = 2, .every = 1, .seed = 1};
	char *one = NULL;
	int option;

	while ((option = getopt(argc, argv, "fj:n:s:e:c:")) >= 0)
		switch (option) {
		case 'f':
			c.until_wrong = true;
			break;
		case 'j':
			c.jobs = (unsigned)strtoul(optarg, NULL, 10);
			break;
		case 'n':
			c.names = (unsigned)strtoul(optarg, NULL, 10);
			break;
		case 's':
			c.seed = strtoull(optarg, NULL, 10);
			break;
		case 'e':
			c.every = strtoull(optarg, NULL, 10);
			break;
		case 'c':
			one = optarg;
			break;
		default:
			return usage();
		}
	if (!c.jobs || c.jobs > JOBS_MAX || !c.names || c.names > NAMES_MAX || !c.every)
		return usage();
	if (one)
		return run_one(&c, one);
	memset(c.chosen, optind == argc, sizeof(c.chosen));
	for (; optind < argc; optind++)
		if (!choose(&c, argv[optind]))
			return usage();
	return run(&c) ? 1 : 0;
}
