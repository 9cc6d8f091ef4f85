/*
 * tests/sim/history.h — random histories of a few replicas on real disks, and the judge.
 *
 * Users on any replica write, delete, rename, chmod, touch, change kinds, empty the trash, and put a symlink where a directory was
 * that they took out of the replica, also while sessions run;
 * sessions of random pairs are cut at random bytes; replicas are closed and opened; tombstones are purged at any moment. What
 * a user writes is a token, never written twice. Then all is quiet, every pair meets until no record changes any more, and
 * the judge asks:
 *
 *   diverged      are all trees and roots equal, with no exceptions left? (P1)
 *   lost          is every token in the tree that no user, who had it before him, replaced or deleted? (P2, P4)
 *   resurrected   is a token at a path where a user removed it, though no other put it there? (P3)
 *   from nowhere  is something there that nobody wrote, or in a conflict copy without a conflict?
 *   gone          is each token where a user put it and no other took it away, or beside it? (P4)
 *   outside       is what was taken out of a replica as it was then? (P9)
 *   never taken   has each replica what another has that it takes from, or has seen it?
 *
 * and of each replica, whether its rows are what is on disk, and a scan finds nothing new. In every fourth history some
 * replicas take nothing from some others: these need not end up equal.
 */
#ifndef TESTS_SIM_HISTORY_H
#define TESTS_SIM_HISTORY_H

#include "tests/sim/world.h"

#define HISTORY_TOKENS_MAX 2000
#define HISTORY_SPOTS_MAX 20000
#define HISTORY_QUIET_MAX 10

#define HISTORY_DIRECTORY (HISTORY_TOKENS_MAX - 1) /* stands for a token where a directory is */

/* A token at a path, as users put and removed it. */
struct spot {
	char path[64];
	unsigned token;
	unsigned placed; /* how often, on any replica */
	unsigned before; /* the token that it replaced there; 0: none, or nobody knows */
	bool removed;
	bool found; /* by the judge */
};

struct history {
	struct world *world;
	unsigned tokens;
	bool removed[HISTORY_TOKENS_MAX]; /* some user replaced or deleted it */
	bool moved[HISTORY_TOKENS_MAX];	  /* some user moved a conflict copy of it */
	uint64_t outside[HISTORY_TOKENS_MAX]; /* what the directory of that name there was; 0: there is none */
	struct spot *spots;
	size_t n_spots;
	unsigned meddled;
	bool one_way; /* some site takes nothing from some other */
};

static inline struct spot *history_find(struct history *h, const char *path, unsigned token)
{
	for (size_t i = 0; i < h->n_spots; i++)
		if (h->spots[i].token == token && strcmp(h->spots[i].path, path) == 0)
			return &h->spots[i];
	return NULL;
}

static inline struct spot *history_spot(struct history *h, const char *path, unsigned token)
{
	struct spot *spot = history_find(h, path, token);

	if (spot)
		return spot;
	if (h->n_spots == HISTORY_SPOTS_MAX)
		abort();
	spot = &h->spots[h->n_spots++];
	*spot = (struct spot){.token = token};
	snprintf(spot->path, sizeof(spot->path), "%s", path);
	return spot;
}

/* The token of a file or symlink, 0 if there is none. A symlink's may be the name of what it points to. */
static inline unsigned history_token_at(const struct site *s, const char *path)
{
	const char *text = site_read(s, path), *name = site_kind(s, path) == 'l' ? strrchr(text, '/') : NULL;
	unsigned token = 0;

	text = name ? name + 1 : text;

	return sscanf(text, "token-%u\n", &token) == 1 ? token : 0;
}

/* Each object at or below a path. */
static inline void history_each(struct history *h, struct site *s, const char *path,
	void (*each)(struct history *h, struct site *s, const char *path, unsigned token, void *data), void *data)
{
	char *argv[] = {(char *)site_at(s, path), NULL};
	FTS *fts = fts_open(argv, FTS_PHYSICAL | FTS_NOCHDIR, world_fts_order);
	size_t skip = strlen(s->root) + 1;
	FTSENT *e;

	while (fts && (e = fts_read(fts))) {
		if (strcmp(e->fts_name, ".syncd") == 0)
			fts_set(fts, e, FTS_SKIP);
		else if (e->fts_info == FTS_D && strlen(e->fts_path) > skip)
			each(h, s, e->fts_path + skip, HISTORY_DIRECTORY, data);
		else if (e->fts_info == FTS_F || e->fts_info == FTS_SL || e->fts_info == FTS_SLNONE)
			each(h, s, e->fts_path + skip, history_token_at(s, e->fts_path + skip), data);
	}
	fts_close(fts);
}

/* --- users --- */

static inline void history_removed(struct history *h, struct site *s, const char *path, unsigned token, void *data)
{
	(void)s;
	(void)data;
	h->removed[token] = true;
	history_spot(h, path, token)->removed = true;
}

/* What is there goes, as a user sees it. */
static inline void history_clear(struct history *h, struct site *s, const char *path)
{
	if (!site_kind(s, path))
		return;
	history_each(h, s, path, history_removed, NULL);
	site_remove(s, path);
}

static inline const char *history_name(struct world *w)
{
	return (const char *[]){"p", "q", "r", "s.txt"}[world_below(w, 4)];
}

static inline void history_path(struct world *w, char ret[64])
{
	switch (world_below(w, 4)) {
	case 0:
		snprintf(ret, 64, "%s", history_name(w));
		break;
	case 1:
		snprintf(ret, 64, "%s/%s/%s", history_name(w), history_name(w), history_name(w));
		break;
	default:
		snprintf(ret, 64, "%s/%s", history_name(w), history_name(w));
		break;
	}
}

static inline void history_mkdir(struct history *h, struct site *s, const char *path)
{
	site_mkdir(s, path);
	history_spot(h, path, HISTORY_DIRECTORY)->placed++;
}

/* Make directories on the way; what is in the way goes. */
static inline void history_parents(struct history *h, struct site *s, const char *path)
{
	char part[64];

	for (const char *slash = strchr(path, '/'); slash; slash = strchr(slash + 1, '/')) {
		snprintf(part, sizeof(part), "%.*s", (int)(slash - path), path);
		if (site_kind(s, part) == 'd')
			continue;
		history_clear(h, s, part);
		history_mkdir(h, s, part);
	}
}

static inline void history_write(struct history *h, struct site *s, const char *path)
{
	struct world *w = h->world;
	unsigned token = ++h->tokens;
	bool link = world_one_in(w, 8), in_place = world_one_in(w, 2);
	char text[32], temporary[80];
	unsigned before;
	struct spot *spot;
	size_t n;

	if (token >= HISTORY_DIRECTORY)
		abort();
	history_parents(h, s, path);
	before = history_token_at(s, path);
	if (site_kind(s, path) == 'd' || site_kind(s, path) == 'l' || link)
		history_clear(h, s, path);
	else if (site_kind(s, path))
		history_each(h, s, path, history_removed, NULL);
	n = (size_t)snprintf(text, sizeof(text), "token-%u\n", token);
	spot = history_spot(h, path, token);
	spot->placed++;
	spot->before = before;
	world_trace(w, "%c writes %s: token %u%s", s->name, path, token, link ? ", a symlink" : "");
	if (link) {
		site_symlink(s, path, text);
		return;
	}
	snprintf(temporary, sizeof(temporary), "%s%s", path, in_place ? "" : ".tmp");
	if (world_one_in(w, 6)) { /* more than one chunk, most of it as others have it */
		static uint8_t big[100000];
		uint64_t family = world_below(w, 2);

		for (size_t i = 0; i < sizeof(big); i++)
			big[i] = (uint8_t)(test_random(&family) >> 40);
		memcpy(big, text, n);
		site_write_bytes(s, temporary, big, sizeof(big));
	} else {
		site_write_bytes(s, temporary, text, n);
	}
	if (!in_place)
		site_rename(s, temporary, path);
}

static inline void history_moved_from(struct history *h, struct site *s, const char *path, unsigned token, void *data)
{
	(void)s;
	(void)data;
	history_spot(h, path, token)->removed = true;
}

static inline void history_moved_to(struct history *h, struct site *s, const char *path, unsigned token, void *data)
{
	(void)s;
	(void)data;
	history_spot(h, path, token)->placed++;
	if (conflict_is_copy(path))
		h->moved[token] = true;
}

static inline void history_rename(struct history *h, struct site *s, const char *from, const char *to)
{
	size_t n = strlen(from);

	if (!site_kind(s, from) || (strncmp(from, to, n) == 0 && (to[n] == '/' || !to[n])))
		return;
	n = strlen(to);
	if (strncmp(to, from, n) == 0 && from[n] == '/')
		return; /* its own parent */
	history_parents(h, s, to);
	if (!site_kind(s, from))
		return; /* it was in the way */
	history_clear(h, s, to);
	world_trace(h->world, "%c renames %s to %s", s->name, from, to);
	history_each(h, s, from, history_moved_from, NULL);
	site_rename(s, from, to);
	history_each(h, s, to, history_moved_to, NULL);
}

static inline void history_touch(struct history *h, struct site *s, const char *path)
{
	struct timespec times[2] = {{.tv_nsec = UTIME_OMIT}};

	if (site_kind(s, path) != '-' && site_kind(s, path) != 'd')
		return;
	world_trace(h->world, "%c touches %s", s->name, path);
	if (world_one_in(h->world, 2)) {
		(void)chmod(site_at(s, path), world_one_in(h->world, 2) ? 0700 : 0755);
		return;
	}
	times[1].tv_sec = (time_t)(1000000000 + world_below(h->world, 100000000));
	(void)utimensat(AT_FDCWD, site_at(s, path), times, AT_SYMLINK_NOFOLLOW);
}

static inline void history_outside(const struct world *w, unsigned token, char ret[220])
{
	snprintf(ret, 220, "%s/outside/token-%u\n", w->base, token);
}

static inline uint64_t history_sum_of(const char *path)
{
	char *argv[] = {(char *)path, NULL}, target[256] = "";
	FTS *fts = fts_open(argv, FTS_PHYSICAL | FTS_NOCHDIR, world_fts_order);
	uint64_t sum = 1;
	FTSENT *e;

	while (fts && (e = fts_read(fts))) {
		const struct stat *st = e->fts_statp;
		const int64_t stamps[] = {st->st_mode, st->st_size, st->st_mtim.tv_sec, st->st_mtim.tv_nsec};

		if (e->fts_info == FTS_DP)
			continue;
		sum = hash_fast(e->fts_path, strlen(e->fts_path), sum);
		sum = hash_fast(stamps, S_ISDIR(st->st_mode) ? sizeof(*stamps) : sizeof(stamps), sum);
		if (S_ISREG(st->st_mode))
			sum ^= world_sum_of(e->fts_path);
		else if (S_ISLNK(st->st_mode) && readlink(e->fts_path, target, sizeof(target)) > 0)
			sum = hash_fast(target, sizeof(target), sum);
	}
	fts_close(fts);
	return sum;
}

/* A directory goes elsewhere, and a symlink to it takes its place. What is in it is not ours from now on. */
static inline void history_take_out(struct history *h, struct site *s, const char *path)
{
	struct world *w = h->world;
	char place[220], target[300] = "";
	unsigned token;

	if (site_kind(s, path) != 'd')
		return;
	token = ++h->tokens;
	world_trace(w, "%c takes %s away, and points to it with a symlink: token %u", s->name, path, token);
	history_each(h, s, path, history_removed, NULL);
	snprintf(place, sizeof(place), "%s/outside", w->base);
	if (mkdir(place, 0755) < 0 && errno != EEXIST)
		world_fail(w, "mkdir %s: %s", place, strerror(errno));
	history_outside(w, token, place);
	if (rename(site_at(s, path), place) < 0)
		world_fail(w, "rename %s: %s", path, strerror(errno));
	h->outside[token] = history_sum_of(place);
	for (const char *slash = strchr(path, '/'); slash; slash = strchr(slash + 1, '/'))
		strcat(target, "../");
	strcat(target, "..");
	strcat(target, place + strlen(w->base));
	site_symlink(s, path, target);
	history_spot(h, path, token)->placed++;
}

/* Somebody tidies up what is ours: the trash's buckets, or all of it. */
static inline void history_empty_trash(struct history *h, struct site *s)
{
	char *argv[] = {(char *)site_at(s, ".syncd/trash"), NULL};
	FTS *fts;
	FTSENT *e;

	world_trace(h->world, "%c empties the trash", s->name);
	if (world_one_in(h->world, 4)) {
		world_remove_tree(argv[0]);
		return;
	}
	fts = fts_open(argv, FTS_PHYSICAL | FTS_NOCHDIR, NULL);
	while (fts && (e = fts_read(fts)))
		if (e->fts_info == FTS_DP ? e->fts_level > 0 : e->fts_info != FTS_D)
			(void)remove(e->fts_accpath);
	fts_close(fts);
}

static inline void history_user(struct history *h, struct site *s)
{
	char path[64], other[64];

	if (world_one_in(h->world, 30)) {
		history_empty_trash(h, s);
		return;
	}
	history_path(h->world, path);
	switch (world_below(h->world, 11)) {
	case 0:
	case 1:
	case 2:
	case 3:
		history_write(h, s, path);
		break;
	case 4:
	case 5:
		if (site_kind(s, path))
			world_trace(h->world, "%c deletes %s", s->name, path);
		history_clear(h, s, path);
		break;
	case 6:
		history_path(h->world, other);
		history_rename(h, s, path, other);
		break;
	case 7:
		history_touch(h, s, path);
		break;
	case 8: /* a directory there */
		if (site_kind(s, path) == 'd')
			break;
		history_parents(h, s, path);
		history_clear(h, s, path);
		world_trace(h->world, "%c makes directory %s", s->name, path);
		history_mkdir(h, s, path);
		break;
	case 9: /* a whole top-level directory renamed, or deleted */
		snprintf(path, sizeof(path), "%s", history_name(h->world));
		snprintf(other, sizeof(other), "%s", history_name(h->world));
		history_rename(h, s, path, other);
		break;
	case 10:
		history_take_out(h, s, path);
		break;
	}
}

static inline struct site *history_site(struct history *h)
{
	return &h->world->sites[world_below(h->world, h->world->n_sites)];
}

static inline void history_meddle(struct world *w, void *data)
{
	struct history *h = data;
	struct site *s = history_site(h);

	if (h->meddled-- == 0) {
		w->meddle = NULL;
		return;
	}
	history_user(h, s);
	if (world_one_in(w, 2) && !s->broken)
		site_scan(s);
}

static inline void history_let_meddle(struct history *h, unsigned one_in, unsigned times)
{
	struct world *w = h->world;

	w->meddle = history_meddle;
	w->meddle_data = h;
	w->meddle_one_in = 1 + (unsigned)world_below(w, one_in);
	h->meddled = 1 + (unsigned)world_below(w, times);
}

static inline void history_live(struct history *h)
{
	struct world *w = h->world;
	bool cut_one = world_one_in(w, 3);

	history_let_meddle(h, 200, 8);
	world_live(w, cut_one);
	w->meddle = NULL;
}

static inline void history_session(struct history *h)
{
	struct world *w = h->world;
	size_t i = world_below(w, w->n_sites), j = (i + 1 + world_below(w, w->n_sites - 1)) % w->n_sites;
	uint64_t cut_after = 0;

	if (!site_takes(&w->sites[i], &w->sites[j]) && !site_takes(&w->sites[j], &w->sites[i]))
		return;
	if (world_one_in(w, 3))
		cut_after = 1 + world_below(w, world_one_in(w, 2) ? 2000 : 30000);
	if (world_one_in(w, 3))
		history_let_meddle(h, 300, 3);
	world_sync_with(w, &w->sites[i], &w->sites[j], NULL, cut_after, NULL);
	w->meddle = NULL;
}

static inline void history_purge(struct history *h, struct site *s)
{
	struct purge_policy policy = {.now_ns = clock_wall_ns() + 1000 * CLOCK_NS_PER_S, .member_expiry_ns = 1};
	uint64_t purged;

	world_ok(h->world, purge_run(s->replica, &policy, &purged));
	world_trace(h->world, "%c purges %" PRIu64 " tombstones", s->name, purged);
}

static inline void history_step(struct history *h)
{
	struct site *s = history_site(h);
	size_t what = world_below(h->world, 41);

	if (what < 22) {
		history_user(h, s);
	} else if (what < 34) {
		history_session(h);
	} else if (what < 36) {
		site_scan(s);
	} else if (what == 36) {
		history_live(h);
	} else if (what < 39) {
		world_trace(h->world, "%c is restarted", s->name);
		site_close(s);
		site_open(s);
	} else {
		history_purge(h, s);
	}
}

/* --- the judge --- */

static inline bool history_equal(struct history *h)
{
	struct world *w = h->world;
	bool equal = true;

	for (size_t i = 1; i < w->n_sites && equal; i++)
		equal = sites_equal(&w->sites[0], &w->sites[i]);
	for (size_t i = 0; i < w->n_sites && equal; i++)
		equal = site_exceptions(&w->sites[i]) == 0;
	return equal;
}

static inline void history_meeting(struct history *h, size_t i, size_t j)
{
	struct site *a = &h->world->sites[i], *b = &h->world->sites[j];

	if (site_takes(a, b) || site_takes(b, a))
		world_sync(h->world, a, b, NULL);
}

/* Every pair meets, twice and in other orders. true: no record changed anywhere. */
static inline bool history_meet_all(struct history *h, unsigned round)
{
	struct world *w = h->world;
	uint64_t before = 0, after = 0;

	for (size_t i = 0; i < w->n_sites; i++)
		before += site_sequence(&w->sites[i]);
	for (size_t i = 0; i < w->n_sites; i++)
		for (size_t j = 0; j < w->n_sites; j++)
			if (i != j && (round + i + j) % 2)
				history_meeting(h, i, j);
	for (size_t i = 0; i < w->n_sites; i++)
		history_meeting(h, i, (i + 1) % w->n_sites);
	for (size_t i = 0; i < w->n_sites; i++)
		after += site_sequence(&w->sites[i]);
	return before == after;
}

static inline void history_quiet(struct history *h)
{
	struct world *w = h->world;
	bool still = false;

	world_trace(w, "quiet");
	for (size_t i = 0; i < w->n_sites; i++) /* some meet nobody */
		site_scan(&w->sites[i]);
	for (unsigned round = 0; round < HISTORY_QUIET_MAX; round++) {
		still = history_meet_all(h, round);
		if (still && (h->one_way || history_equal(h)))
			return;
	}
	if (!still)
		world_fail(w, "records change for ever");
	for (size_t i = 0; i < w->n_sites; i++)
		site_trace_exceptions(&w->sites[i]);
	for (size_t i = 1; i < w->n_sites; i++)
		sites_expect_equal(&w->sites[0], &w->sites[i]);
	world_fail(w, "exceptions are left");
}

struct history_found {
	bool token[HISTORY_TOKENS_MAX]; /* anywhere */
	bool copy[HISTORY_TOKENS_MAX];	/* as a conflict copy */
};

/* Did the writer of `late` certainly have `early` there? What was put there more than once, nobody knows. */
static inline bool history_descends(struct history *h, const struct spot *late, const struct spot *early)
{
	while (late && late != early && late->placed == 1 && late->before)
		late = history_find(h, late->path, late->before);
	return late == early;
}

/* Could two users have come into conflict about the first, as far as we know? Neither had the other's there, or something
 * came to be below. */
static inline bool history_meet(struct history *h, const struct spot *a, const struct spot *b)
{
	if (a->token == b->token)
		return a->placed > 1; /* each by himself, and one of them has replaced his since */
	if (strcmp(a->path, b->path) != 0)
		return path_is_below(b->path, a->path);
	return b->token == HISTORY_DIRECTORY || !(history_descends(h, a, b) || history_descends(h, b, a));
}

static inline void history_judge_copy(struct history *h, const char *path, unsigned token)
{
	bool concurrent = h->moved[token];

	for (size_t i = 0; i < h->n_spots; i++)
		for (size_t j = 0; j < h->n_spots && h->spots[i].token == token && !concurrent; j++)
			concurrent = history_meet(h, &h->spots[i], &h->spots[j]);
	if (!concurrent)
		world_fail(h->world, "%s: token %u: a conflict of whom?", path, token);
}

static inline void history_judge_one(struct history *h, struct site *s, const char *path, unsigned token, void *data)
{
	struct history_found *found = data;
	bool copy = conflict_is_copy(path);
	struct spot *spot = NULL;

	if (token != HISTORY_DIRECTORY && (!token || token > h->tokens))
		world_fail(h->world, "%c: %s: from nowhere", s->name, path);
	found->token[token] = true;
	if (copy) {
		found->copy[token] = true;
		history_judge_copy(h, path, token);
		return;
	}
	spot = history_find(h, path, token);
	if (!spot || !spot->placed)
		world_fail(h->world, "%s: token %u: from nowhere", path, token);
	spot->found = true;
	if (!h->one_way && spot->removed && spot->placed == 1 && token != HISTORY_DIRECTORY)
		world_fail(h->world, "%s: token %u: resurrected", path, token);
}

/* What no user took away from where it was put is still there, or beside it after a conflict. */
static inline void history_judge_spot(struct history *h, const struct spot *spot, const struct history_found *found)
{
	if (spot->removed || spot->found || !spot->placed)
		return;
	if (spot->token != HISTORY_DIRECTORY && !found->copy[spot->token] && !h->removed[spot->token])
		world_fail(h->world, "%s: token %u: gone from there", spot->path, spot->token);
	for (size_t i = 0; i < h->n_spots; i++)
		if (strcmp(h->spots[i].path, spot->path) == 0 && &h->spots[i] != spot)
			return; /* a directory in conflict with something else */
	if (spot->token == HISTORY_DIRECTORY)
		world_fail(h->world, "%s: a directory that nobody removed is gone", spot->path);
}

/* Who takes has, or has seen, what the other holds. */
static inline void history_judge_taken(struct site *s, struct site *from)
{
	const struct version_lineage *l = replica_lineage(s->replica);
	struct index_txn *mine = NULL, *theirs = NULL;
	struct index_cursor *c = NULL;
	struct knowledge k = {0};
	int r;

	world_ok(s->world, index_begin_read(replica_index(s->replica), &mine));
	world_ok(s->world, index_begin_read(replica_index(from->replica), &theirs));
	world_ok(s->world, replica_knowledge_read(mine, &k));
	world_ok(s->world, index_cursor_open(theirs, &c));
	for (r = index_cursor_seek(c, ""); r == 0; r = index_cursor_next(c)) {
		struct row row = {0}, here = {0};
		char *path = NULL;
		bool seen = true;

		world_ok(s->world, index_cursor_get(c, &path, &row));
		if (row_live(&row)) {
			world_expect(s->world, index_get(mine, path, &here) >= 0);
			for (size_t i = 0; i < row.record.dots.n; i++)
				seen = seen && (version_vector_has(knowledge_of(&k, path), row.record.dots.v[i], l) ||
						       version_vector_has(&here.record.vv, row.record.dots.v[i], l));
			if (!seen && !(row_live(&here) && record_same_state(&row.record, &here.record)))
				world_fail(s->world, "%c never took %s of %c", s->name, path, from->name);
		}
		free(path);
		row_deinit(&row);
		row_deinit(&here);
	}
	index_cursor_close(c);
	knowledge_deinit(&k);
	index_abort(theirs);
	index_abort(mine);
}

static inline void history_judge_site(struct site *s)
{
	struct world *w = s->world;

	site_scan(s);
	if (s->seen.events)
		world_fail(w, "%c: a scan of what was applied made %" PRIu64 " events", s->name, s->seen.events);
	site_judge_rows(s);
	for (size_t i = 0; i < w->n_sites; i++)
		if (&w->sites[i] != s && site_takes(s, &w->sites[i]))
			history_judge_taken(s, &w->sites[i]);
}

static inline void history_judge(struct history *h)
{
	struct world *w = h->world;
	struct history_found found = {0};

	for (size_t i = 0; i < w->n_sites; i++) /* but for one-way edges all are alike */
		history_each(h, &w->sites[i], "", history_judge_one, &found);
	for (unsigned token = 1; token <= h->tokens; token++)
		if (!found.token[token] && !h->removed[token])
			world_fail(w, "token %u: lost", token);
	for (size_t i = 0; i < h->n_spots; i++)
		history_judge_spot(h, &h->spots[i], &found);
	for (size_t i = 0; i < w->n_sites; i++)
		history_judge_site(&w->sites[i]);
	for (unsigned token = 1; token <= h->tokens; token++) {
		char place[220];

		history_outside(w, token, place);
		if (h->outside[token] && history_sum_of(place) != h->outside[token])
			world_fail(w, "token %u: changed outside", token);
	}
}

static inline void history_refuse(struct history *h)
{
	struct world *w = h->world;

	for (size_t i = 0; i < w->n_sites; i++)
		for (size_t j = 0; j < w->n_sites; j++) {
			w->refuses[i][j] = i != j && world_one_in(w, 3);
			h->one_way = h->one_way || w->refuses[i][j];
		}
}

static inline void history_run(struct world *w, uint64_t seed, bool trace)
{
	struct history *h = calloc(1, sizeof(*h));
	unsigned steps;

	if (!h || !(h->spots = calloc(HISTORY_SPOTS_MAX, sizeof(*h->spots))))
		abort();
	h->world = w;
	world_begin(w, seed, 2 + (seed % 4 != 0));
	w->trace = trace;
	w->grace_ns = world_one_in(w, 2) ? 0 : INT64_MAX;
	if (world_one_in(w, 4))
		history_refuse(h);
	steps = 10 + (unsigned)world_below(w, 40);
	while (steps--)
		history_step(h);
	history_quiet(h);
	history_judge(h);
	world_end(w);
	free(h->spots);
	free(h);
}

#endif
