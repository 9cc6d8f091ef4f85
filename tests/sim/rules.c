/*
 * tests/sim/rules.c — random histories of a few replicas, decided by the real rules and judged against ground truth.
 *
 * Users edit, delete, chmod and touch, in trees of two levels; sessions are cut at any path; replicas restart with new
 * incarnations, and are put back to an older state; tombstones are purged at any moment; some edges only one side uses. After
 * a quiet end, in which every pair meets, the judge asks:
 *
 *   diverged      do all hold the same, to the last dot? (P1)
 *   lost          is every content there that no user replaced? (P2)
 *   resurrected   is something back that was deleted? (P3)
 *   vanished      is something gone that nobody deleted? (P4)
 *   untaken       has each what another holds, or seen it?
 *   broken tree   does something lie below what is no directory?
 *   excepted      are exceptions left?
 *   setuid        does content run with rights given to another?
 *
 * usage: rules [-f] [-j JOBS] RUNS [SEED [flat|tree|oneway]]      one run of one mode traces its history
 *        -f: until the first that is wrong
 *
 * What a seed means must not change: seeds are kept as tests.
 */
#include <inttypes.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/error.h"
#include "tests/random.h"
#include "tests/sim/jobs.h"
#include "tests/sim/rules_world.h"
#include "tombstones/conflict.h"

#define GOING_MAX 128
#define SAVED_MAX 64
#define QUIET_ROUNDS_MAX 14

enum mode { FLAT, TREE, ONEWAY, MODES };
static const char *const mode_names[] = {"flat", "tree", "oneway"};

enum verdict { DIVERGED, EXCEPTED, BROKEN_TREE, UNTAKEN, LOST, RESURRECTED, VANISHED, SETUID, VERDICTS };
static const char *const verdict_names[] = {
	"P1 diverged",
	"exceptions left",
	"broken tree",
	"never taken",
	"P2 lost",
	"P3 resurrected",
	"P4 vanished",
	"setuid strayed",
};
static const char *const policy_names[] = {
	[DECIDE_KEEP_BOTH] = "keep-both", [DECIDE_NEWEST] = "newest", [DECIDE_PREFER] = "prefer"};

struct history {
	struct rules_world *w;
	enum mode mode;
	int n_user_paths;
	struct rules_session *going[GOING_MAX];
	size_t n_going;
	bool restored;				/* something was saved, to be put back */
	struct rules_replica *saved[SAVED_MAX]; /* made once */
	size_t saved_of[SAVED_MAX];
	size_t n_saved;
	const struct rules_replica *away; /* a member that seldom meets anyone; NULL: none */
	bool bad[VERDICTS];
};

/* --- users --- */

static void user_delete(struct rules_world *w, struct rules_replica *r, int p)
{
	for (int q = 0; q < w->n_paths; q++)
		if (rules_live(r, q) && rules_is_below(w, q, p))
			rules_delete(w, r, q, true);
	if (rules_live(r, p))
		rules_delete(w, r, p, true);
}

static struct rules_edit new_state(struct rules_world *w, uint8_t kind, uint64_t content)
{
	static const uint16_t modes[] = {0644, 0600, 0755, 04755, 02755};

	return (struct rules_edit){
		.change = RULES_STATE,
		.kind = kind,
		.content = content,
		.mode = kind == RECORD_SYMLINK ? 0777 : modes[rules_below(w, ARRAY_SIZE(modes))],
		.mtime_ns = (int64_t)rules_below(w, 6),
		.user = true,
	};
}

static void user_write(struct rules_world *w, struct rules_replica *r, int p, uint8_t kind, uint64_t content)
{
	int q = w->parents[p];
	struct rules_edit e;

	if (q != RULES_NONE && rules_kind(w, r, q) != RECORD_DIRECTORY) {
		if (rules_kind(w, r, q))
			user_delete(w, r, q);
		e = new_state(w, RECORD_DIRECTORY, 0);
		rules_event(w, r, q, &e);
	}
	if (rules_kind(w, r, p) == RECORD_DIRECTORY) {
		if (kind == RECORD_DIRECTORY)
			return;
		user_delete(w, r, p);
	}
	e = new_state(w, kind, content);
	rules_event(w, r, p, &e);
}

static void user_touch(struct rules_world *w, struct rules_replica *r, int p)
{
	struct rules_edit e = new_state(w, 0, 0);

	if (!rules_live(r, p))
		return;
	e.change = r->entries[p].record.kind != RECORD_DIRECTORY && rules_percent(w, 50) ? RULES_MTIME : RULES_ATTRIBUTES;
	e.kind = r->entries[p].record.kind;
	if (e.kind == RECORD_SYMLINK)
		e.change = RULES_MTIME;
	rules_event(w, r, p, &e);
}

/* A path that the user looks at: sometimes a conflict copy. */
static int user_path(struct history *h, const struct rules_replica *r)
{
	struct rules_world *w = h->w;
	int copies[RULES_PATHS_MAX], n = 0;

	for (int p = h->n_user_paths; p < w->n_paths; p++)
		if (r->entries[p].present)
			copies[n++] = p;
	if (n && rules_percent(w, 20))
		return copies[rules_below(w, (size_t)n)];
	return (int)rules_below(w, (size_t)h->n_user_paths);
}

static struct rules_replica *any_replica(struct rules_world *w)
{
	return &w->replicas[rules_below(w, w->n)];
}

static void user(struct history *h)
{
	struct rules_world *w = h->w;
	struct rules_replica *r = any_replica(w);
	int p = user_path(h, r);
	unsigned k = (unsigned)rules_below(w, 100);
	uint8_t kind = rules_percent(w, 10) ? RECORD_SYMLINK : RECORD_FILE;

	if (k < 30)
		user_delete(w, r, p);
	else if (k < 42)
		user_touch(w, r, p);
	else if (h->mode == TREE && w->parents[p] == RULES_NONE)
		user_write(w, r, p, k < 65 ? RECORD_DIRECTORY : kind, 0);
	else
		user_write(w, r, p, kind, k < 52 ? 1 + rules_below(w, 2) : 0);
}

/* --- the judge --- */

static bool all_seen(const struct version_dots *d, const struct version_vector *v, const struct version_lineage *l)
{
	for (size_t i = 0; i < d->n; i++)
		if (!version_vector_has(v, d->v[i], l))
			return false;
	return true;
}

static void judge_convergence(struct history *h)
{
	const struct rules_world *w = h->w;
	const struct rules_replica *first = &w->replicas[0];
	bool same = true;

	for (size_t i = 1; i < w->n; i++)
		for (int p = 0; p < w->n_paths && same; p++) {
			const struct rules_replica *r = &w->replicas[i];

			same = rules_live(first, p) == rules_live(r, p) &&
			       (!rules_live(r, p) || record_equal(&first->entries[p].record, &r->entries[p].record));
			if (!same)
				rules_trace(w, "r0 and r%zu differ in %s", i, w->paths[p]);
		}
	h->bad[DIVERGED] |= !same;
	/* an event lost with a replica that was put back may stay excepted */
	for (size_t i = 0; i < w->n && !h->restored; i++)
		h->bad[EXCEPTED] |= w->replicas[i].knowledge.n > 0;
}

static void judge_tree(struct history *h)
{
	const struct rules_world *w = h->w;

	for (size_t i = 0; i < w->n; i++)
		for (int p = 0; p < w->n_paths; p++)
			if (rules_live(&w->replicas[i], p) && w->parents[p] != RULES_NONE &&
				rules_kind(w, &w->replicas[i], w->parents[p]) != RECORD_DIRECTORY)
				h->bad[BROKEN_TREE] = true;
}

/* Who takes has, or has seen, what the other holds. */
static void judge_taken(struct history *h, const struct rules_replica *x, const struct rules_replica *y)
{
	const struct rules_world *w = h->w;

	for (int p = 0; p < w->n_paths; p++) {
		const struct rules_entry *m = &x->entries[p];
		const struct record *r = &y->entries[p].record;

		if (!rules_live(y, p) || (m->present && record_same_state(&m->record, r)))
			continue;
		if (!all_seen(&r->dots, knowledge_of(&x->knowledge, w->paths[p]), w->lineage) &&
			!(m->present && all_seen(&r->dots, &m->record.vv, w->lineage)))
			h->bad[UNTAKEN] = true;
	}
}

static bool content_present(const struct rules_world *w, uint8_t kind, uint64_t content)
{
	for (size_t i = 0; i < w->n; i++)
		for (int p = 0; p < w->n_paths; p++)
			if (rules_live(&w->replicas[i], p) && w->replicas[i].entries[p].record.kind == kind &&
				rules_content(&w->replicas[i].entries[p].record) == content)
				return true;
	return false;
}

static bool replaced_by_user(const struct rules_world *w, size_t event)
{
	for (size_t i = 0; i < w->n_events; i++)
		if (w->events[i].user && rules_has_event(&w->events[i].before, event))
			return true;
	return false;
}

/* Only a user's later event justifies a loss. */
static void judge_lost(struct history *h)
{
	const struct rules_world *w = h->w;

	for (size_t i = 0; i < w->n_events; i++) {
		const struct rules_event *e = &w->events[i];

		if (!e->live || !e->user || e->touch || e->kind == RECORD_DIRECTORY || content_present(w, e->kind, e->content) ||
			replaced_by_user(w, i))
			continue;
		rules_trace(w, "event %zu is lost", i);
		h->bad[LOST] = true;
	}
}

/* Did a user who had seen the event delete its path, and did anyone hear of it? What went away with a replica that was put
 * back before anyone heard does not count. */
static bool known_deleted(const struct rules_world *w, size_t event)
{
	for (size_t i = 0; i < w->n_events; i++) {
		const struct rules_event *e = &w->events[i];

		if (e->live || !e->user || e->path != w->events[event].path || !rules_has_event(&e->before, event))
			continue;
		if (e->heard_by)
			return true;
		for (size_t k = 0; !w->rolls && k < w->n; k++)
			if (version_vector_has(knowledge_of(&w->replicas[k].knowledge, w->paths[e->path]), e->dot, w->lineage))
				return true;
	}
	return false;
}

static void judge_resurrected(struct history *h, const struct rules_replica *r)
{
	const struct rules_world *w = h->w;

	for (int p = 0; p < w->n_paths; p++) {
		const struct rules_entry *e = &r->entries[p];
		bool wrote = false, standing = false;

		if (!rules_live(r, p) || e->record.kind == RECORD_DIRECTORY || conflict_is_copy(w->paths[p]))
			continue;
		for (size_t i = 0; i < w->n_events && !standing; i++) {
			const struct rules_event *v = &w->events[i];

			if (v->path != p || v->touch || !v->live || v->kind != e->record.kind ||
				v->content != rules_content(&e->record) || !rules_has_event(&e->hist, i))
				continue;
			wrote = true;
			standing = !known_deleted(w, i);
		}
		if (wrote && !standing) {
			rules_trace(w, "%s is back", w->paths[p]);
			h->bad[RESURRECTED] = true;
		}
	}
}

/* Nothing vanishes that no user deleted. */
static void judge_vanished(struct history *h)
{
	const struct rules_world *w = h->w;

	for (int p = 0; p < h->n_user_paths; p++) {
		bool made = false, deleted = false, there = false;

		for (size_t i = 0; i < w->n_events; i++)
			if (w->events[i].path == p) {
				made = made || w->events[i].live;
				deleted = deleted || (!w->events[i].live && w->events[i].user);
			}
		for (size_t i = 0; i < w->n; i++)
			there = there || rules_live(&w->replicas[i], p);
		h->bad[VANISHED] |= made && !deleted && !there;
	}
}

static void judge(struct history *h)
{
	struct rules_world *w = h->w;

	if (h->mode != ONEWAY) {
		judge_convergence(h);
		for (size_t i = 0; i < w->n; i++)
			judge_resurrected(h, &w->replicas[i]);
	}
	judge_tree(h);
	for (size_t i = 0; i < w->n; i++)
		for (size_t k = 0; k < w->n; k++)
			if (i != k && !w->deaf[i][k])
				judge_taken(h, &w->replicas[i], &w->replicas[k]);
	if (!h->restored)
		judge_lost(h);
	if (!h->restored && h->mode == FLAT)
		judge_vanished(h);
	h->bad[SETUID] = w->strayed;
}

/* --- histories --- */

static void history_begin(struct history *h, enum mode mode, uint64_t seed)
{
	static const char *const tree[] = {"d", "e", "d/f", "d/g", "e/f"}, *const flat[] = {"p", "q.c", "r", "s.tar.gz"};
	static const size_t replicas[] = {2, 3, 3, 4, 5}, paths[] = {1, 2, 4};
	static const enum decide_policy_kind policies[] = {DECIDE_KEEP_BOTH, DECIDE_KEEP_BOTH, DECIDE_NEWEST, DECIDE_PREFER};
	struct rules_world *w = h->w;
	size_t n;

	rules_begin(w, 0, seed, seed * MODES + mode);
	h->mode = mode;
	h->n_saved = 0;
	h->restored = false;
	memset(h->bad, 0, sizeof(h->bad));
	w->n = replicas[rules_below(w, ARRAY_SIZE(replicas))];
	n = mode == TREE ? ARRAY_SIZE(tree) : paths[rules_below(w, ARRAY_SIZE(paths))];
	for (size_t i = 0; i < n; i++)
		rules_path(w, mode == TREE ? tree[i] : flat[i]);
	h->n_user_paths = w->n_paths;
	for (size_t i = 0; mode == ONEWAY && i < w->n; i++)
		for (size_t k = 0; k < w->n; k++)
			w->deaf[i][k] = rules_percent(w, 30);
	w->policy.kind = policies[rules_below(w, ARRAY_SIZE(policies))];
	for (size_t i = 0; i < w->n; i++)
		if (rules_percent(w, 40))
			w->prefer[w->policy.n_prefer++] = (i + seed) % w->n + 1;
	w->rolls = mode == FLAT && rules_percent(w, 30);
	h->away = w->n > 2 && rules_percent(w, 50) ? &w->replicas[w->n - 1] : NULL;
}

static void meet(struct history *h)
{
	static const unsigned cuts[] = {0, 0, 30, 60};
	struct rules_world *w = h->w;
	size_t a = rules_below(w, w->n), b = (a + 1 + rules_below(w, w->n - 1)) % w->n;
	struct rules_session *s;

	if ((&w->replicas[a] == h->away || &w->replicas[b] == h->away) && rules_percent(w, 90))
		return;
	s = rules_session_new(w, &w->replicas[a], &w->replicas[b], RULES_SHUFFLED, cuts[rules_below(w, ARRAY_SIZE(cuts))]);
	if (h->n_going < GOING_MAX && rules_percent(w, 60))
		h->going[h->n_going++] = s;
	else
		rules_session_finish(w, s);
}

static void restore(struct history *h)
{
	struct rules_world *w = h->w;
	size_t i = rules_below(w, h->n_saved);
	struct rules_replica *r = &w->replicas[h->saved_of[i]];

	for (size_t k = 0; k < h->n_going; k++)
		if (rules_session_of(h->going[k], r))
			return;
	rules_trace(w, "r%zu is put back", h->saved_of[i]);
	rules_put_back(w, r, h->saved[i]);
}

static void save(struct history *h)
{
	size_t i = rules_below(h->w, h->w->n);

	h->restored = true;
	if (h->n_saved == SAVED_MAX)
		return;
	if (!h->saved[h->n_saved])
		h->saved[h->n_saved] = calloc(1, sizeof(*h->saved[0]));
	if (!h->saved[h->n_saved])
		rules_fail(h->w, "no memory");
	h->saved_of[h->n_saved] = i;
	rules_copy(h->w, h->saved[h->n_saved++], &h->w->replicas[i]);
}

static void something(struct history *h)
{
	struct rules_world *w = h->w;
	size_t k = rules_below(w, 100);

	if (k < 40)
		user(h);
	else if (k < 80)
		meet(h);
	else if (k < 90)
		rules_purge(w, any_replica(w));
	else if (k < 95)
		rules_restart(any_replica(w));
	else if (w->rolls && h->n_saved && rules_percent(w, 50))
		restore(h);
	else if (w->rolls)
		save(h);
}

static void advance(struct history *h)
{
	size_t kept = 0;

	for (size_t i = 0; i < h->n_going; i++) {
		bool more = true;

		for (size_t steps = rules_below(h->w, 3); steps > 0 && more; steps--)
			more = rules_session_step(h->w, h->going[i]);
		if (more)
			h->going[kept++] = h->going[i];
		else
			rules_session_free(h->w, h->going[i]);
	}
	h->n_going = kept;
}

/* Where a pair stood when its session changed and skipped nothing: as long as it stands there, the next would not, either. */
struct idle {
	bool known;
	uint64_t a, b;
};

static void quiet_pair(struct rules_world *w, size_t a, size_t b, struct idle *idle)
{
	struct rules_replica *x = &w->replicas[a], *y = &w->replicas[b];

	if (idle->known && idle->a == x->changes && idle->b == y->changes) {
		rules_session_pass(w, x, y);
		return;
	}
	idle->known = rules_session_finish(w, rules_session_new(w, x, y, RULES_SHUFFLED, 0));
	idle->a = x->changes;
	idle->b = y->changes;
}

static uint64_t changes(const struct rules_world *w)
{
	uint64_t n = 0;

	for (size_t i = 0; i < w->n; i++)
		n += w->replicas[i].changes;
	return n;
}

/* Every pair meets, repeatedly, until nothing moves any more. */
static void quiet(struct rules_world *w)
{
	struct idle idle[RULES_REPLICAS_MAX * RULES_REPLICAS_MAX] = {0};
	uint64_t before = UINT64_MAX;

	for (int round = 0; round < QUIET_ROUNDS_MAX && before != changes(w); round++) {
		int pairs[RULES_REPLICAS_MAX * RULES_REPLICAS_MAX], n = 0;

		before = changes(w);
		for (size_t a = 0; a < w->n; a++)
			for (size_t b = a + 1; b < w->n; b++)
				pairs[n++] = (int)(a * w->n + b);
		rules_shuffle(w, pairs, n);
		for (int i = 0; i < n; i++) {
			quiet_pair(w, (size_t)pairs[i] / w->n, (size_t)pairs[i] % w->n, &idle[pairs[i]]);
			if (rules_percent(w, 30))
				rules_purge(w, any_replica(w));
		}
	}
}

/* Is anything wrong? h->bad says what. */
static bool history_run(struct history *h, enum mode mode, uint64_t seed)
{
	static const size_t lengths[] = {5, 15, 40, 80};
	bool wrong = false;

	history_begin(h, mode, seed);
	rules_trace(h->w, "%zu replicas, conflicts by %s", h->w->n, policy_names[h->w->policy.kind]);
	for (size_t n = lengths[rules_below(h->w, ARRAY_SIZE(lengths))]; n > 0; n--) {
		something(h);
		advance(h);
	}
	while (h->n_going)
		rules_session_finish(h->w, h->going[--h->n_going]);
	quiet(h->w);
	judge(h);
	for (size_t i = 0; i < VERDICTS; i++)
		wrong = wrong || h->bad[i];
	return wrong;
}

/* --- campaigns --- */

struct tally {
	uint64_t runs, wrong;
	uint64_t traces; /* their sum: equal where no history is another one */
	uint64_t bad[VERDICTS], first[VERDICTS]; /* how many, and the first seed */
};

struct campaign {
	unsigned jobs;
	uint64_t runs, seed;
	enum mode first;
	unsigned modes; /* history i is of mode first + i % modes, and has seed + i / modes */
	bool until_wrong;
	atomic_bool *over; /* one was wrong, and no more are wanted; shared */
	struct tally (*tallies)[MODES]; /* of each job; shared */
};

/* A number for what happened: how much was drawn, and all events. */
static uint64_t trace_of(const struct rules_world *w)
{
	uint64_t trace = w->random;

	for (size_t i = 0; i < w->n_events; i++) {
		const struct rules_event *e = &w->events[i];

		trace ^= e->dot.inc ^ e->dot.counter << 32 ^ (uint64_t)e->path << 16 ^ e->mode ^ e->content << 1 ^ e->live;
		trace = test_random(&trace);
	}
	return trace;
}

static void count(struct tally *t, const struct history *h, uint64_t seed)
{
	t->wrong++;
	for (size_t v = 0; v < VERDICTS; v++)
		if (h->bad[v] && !t->bad[v]++)
			t->first[v] = seed;
}

static void work(unsigned job, void *data)
{
	const struct campaign *c = data;
	struct history *h = calloc(1, sizeof(*h));

	if (!h)
		abort();
	h->w = rules_new();
	h->w->trace = c->runs == 1;
	for (uint64_t i = job; i < c->runs && !*c->over; i += c->jobs) {
		enum mode mode = (enum mode)(c->first + i % c->modes);
		struct tally *t = &c->tallies[job][mode];
		bool wrong = history_run(h, mode, c->seed + i / c->modes);

		t->runs++;
		t->traces += trace_of(h->w);
		if (wrong)
			count(t, h, h->w->seed);
		if (wrong && c->until_wrong)
			*c->over = true;
	}
	for (size_t i = 0; i < SAVED_MAX && h->saved[i]; i++) {
		rules_clear(h->saved[i]);
		free(h->saved[i]);
	}
	rules_free(h->w);
	free(h);
}

static void print_mode(const struct campaign *c, enum mode mode)
{
	struct tally all = {0};

	for (unsigned j = 0; j < c->jobs; j++) {
		const struct tally *t = &c->tallies[j][mode];

		all.runs += t->runs;
		all.wrong += t->wrong;
		for (size_t v = 0; v < VERDICTS; v++) {
			if (t->bad[v] && (!all.bad[v] || t->first[v] < all.first[v]))
				all.first[v] = t->first[v];
			all.bad[v] += t->bad[v];
		}
	}
	for (size_t v = 0; v < VERDICTS; v++)
		if (all.bad[v])
			printf("%s: seed %" PRIu64 ": %s (%" PRIu64 " histories)\n", mode_names[mode], all.first[v], verdict_names[v],
				all.bad[v]);
	printf("%-6s %" PRIu64 " histories from seed %" PRIu64 ": ", mode_names[mode], all.runs, c->seed);
	if (all.wrong)
		printf("%" PRIu64 " wrong", all.wrong);
	else
		printf("nothing wrong");
	putchar('\n');
}

/* The number of histories that were wrong, or ended their process. */
static uint64_t run(struct campaign *c)
{
	uint64_t wrong, runs = 0, traces = 0;
	struct timespec began, now;
	double s;

	c->tallies = jobs_shared(c->jobs * sizeof(*c->tallies));
	c->over = jobs_shared(sizeof(*c->over));
	clock_gettime(CLOCK_MONOTONIC, &began);
	wrong = jobs_run(c->jobs, work, c);
	clock_gettime(CLOCK_MONOTONIC, &now);
	for (enum mode m = c->first; m < c->first + c->modes; m++) {
		print_mode(c, m);
		for (unsigned j = 0; j < c->jobs; j++) {
			wrong += c->tallies[j][m].wrong;
			runs += c->tallies[j][m].runs;
			traces += c->tallies[j][m].traces;
		}
	}
	s = (double)(now.tv_sec - began.tv_sec) + (double)(now.tv_nsec - began.tv_nsec) / 1e9;
	printf("%" PRIu64 " histories in %.1f s; traces %016" PRIx64 "\n", runs, s, traces);
	return wrong;
}

static int usage(void)
{
	fprintf(stderr, "usage: rules [-f] [-j JOBS] RUNS [SEED [flat|tree|oneway]]\n");
	return 2;
}

int main(int argc, char **argv)
{
	struct campaign c = {.jobs = 1, .first = FLAT, .modes = MODES, .seed = (uint64_t)time(NULL)};
	int option;

	while ((option = getopt(argc, argv, "fj:")) >= 0)
		if (option == 'f')
			c.until_wrong = true;
		else if (option == 'j')
			c.jobs = (unsigned)strtoul(optarg, NULL, 10);
		else
			return usage();
	argc -= optind;
	argv += optind;
	c.runs = argc > 0 ? strtoull(argv[0], NULL, 10) : 0;
	if (argc > 1 && *argv[1])
		c.seed = strtoull(argv[1], NULL, 10);
	for (c.first = FLAT; argc > 2 && c.first < MODES && strcmp(argv[2], mode_names[c.first]) != 0;)
		c.first++;
	if (argc > 2)
		c.modes = 1;
	if (!c.runs || argc > 3 || c.first == MODES || !c.jobs || c.jobs > JOBS_MAX)
		return usage();
	return run(&c) ? 1 : 0;
}
