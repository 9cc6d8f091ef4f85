/*
 * tests/sim/engine_oracle.c — what users truly did; see tests/sim/engine.h.
 *
 *   token   a content that a user made (or a crash left of one): the same bytes are the same token. A symlink's is its target;
 *           all directories are one token
 *   spot    a token at a path: how often it was put there, by users on any replica, and whether a user took it away
 *
 * Users are looked at before and after each act: what appeared was placed; what vanished was removed, and its token too, unless it
 * was only moved. A crash or a restored disk counts as a user's act as far as nobody else has what it took.
 *
 * While it runs, each change of a name by syncd is looked at: what appears in the tree must be a whole token that some user had put
 * at that path, or a conflict copy; what it takes away from the tree must not be lost with its last name, and some user must
 * have taken it away (or it is beside, as a copy); the bytes of what is in the tree are never written.
 *
 * At the end, when all replicas are alike (any one will do):
 *
 *   lost          a token is nowhere, though nobody who had it replaced or deleted it
 *   gone          a token is not where it was put, nor beside it, though nobody took it from there
 *   resurrected   a token is where somebody who had it there took it away, and nobody put it there again
 *   from nowhere  something is there that nobody put there
 */
#include "tests/sim/engine.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "merkle/hash.h"
#include "merkle/path.h"
#include "tests/sim/fs_internal.h"
#include "tombstones/conflict.h"

#define TOKEN_DIRECTORY 1
#define PATH_BYTES 512
#define LARGE_BYTES (ORACLE_CONTENT_MAX - 10000)
#define LARGE_CHUNK_WORDS 1088 /* of a large content, a little more than the least that a chunk has; after the last eight it is cut: */
#define CUT_SEED 33422
/* A round may end in its middle: who heard of a part tells others of it, and knows less than its author (DESIGN.md, Known). So it is
 * where one tells of it before the round is over (engine.passed_on). */
#define BIT(feature) (UINT32_C(1) << FEATURE_##feature)
#define CUTTING                                                                                                              \
	(BIT(CUT) | BIT(STALL) | BIT(PAUSE) | BIT(RESTART) | BIT(AWAY) | BIT(CRASH) | BIT(KILL) | BIT(FAULT) | BIT(UNMOUNT) |       \
		BIT(RESTORE) | BIT(LIE) | BIT(BLACKOUT))
#define SLOTS 4096 /* of each table */
#define TEXT_BYTES (1 << 20) /* of the paths of a tree */

struct token {
	uint64_t hash;
	uint32_t next; /* in its slot */
	bool removed, found, copied;
	bool trashed;  /* may be in trash: a disk that had it became an older one, which has not; or it was stored through a mapping */
	bool stored;   /* through a mapping: until that is closed it may be taken for what was there before, and moved as that */
	bool undone;   /* a crash left it of what a user wrote into what had just landed: that may go back to where it was */
	bool moved; /* a user moved a conflict copy of it, or put it where one is, or opened it while it was being replaced; or it was put
		     * aside where a disk denied to be looked at: what may not be read is taken for a user's */
	bool anew;     /* was where a user did something on what may be an older disk: what differs there is recorded as what descends from nothing */
	char name[40]; /* for people */
};

struct spot {
	char *path;
	uint64_t hash;
	uint32_t token, next;
	uint32_t before; /* what the first user who put it there replaced; 0: nothing, or it came otherwise */
	unsigned placed;
	bool removed, found;
	uint8_t users; /* by whom: a bit for each site where a user did it */
};

/* An object of a tree. */
struct item {
	const char *path; /* in the listing's text */
	uint64_t hash;
	uint32_t token;
	struct node *node;
	/* of then: a crash may take the node */
	uint64_t ino;
	uint32_t generation;
	bool file, returned;
	int64_t ctime_ns;
};

struct listing {
	struct item *v;
	size_t n, cap;
	char *text;
	size_t text_n;
};

/* Syncd took it away from where it was. */
struct taken {
	struct site *site;
	char *path;
	uint32_t token;
};

struct oracle {
	struct token *tokens;
	size_t n_tokens, cap_tokens;
	uint32_t token_slots[SLOTS];
	struct spot *spots;
	size_t n_spots, cap_spots;
	uint32_t spot_slots[SLOTS];
	struct taken *taken;
	size_t n_taken, cap_taken;
	struct listing before, after, other;
	unsigned made; /* contents */
	struct sim_watcher watchers[SITES_MAX];
};

/* --- tokens --- */

static uint32_t token_find(struct oracle *o, uint64_t hash)
{
	uint32_t i = o->token_slots[hash % SLOTS];

	while (i && o->tokens[i].hash != hash)
		i = o->tokens[i].next;
	return i;
}

static uint32_t token_add(struct oracle *o, uint64_t hash, const char *name)
{
	uint32_t i = (uint32_t)o->n_tokens, *slot = &o->token_slots[hash % SLOTS];

	sim_grow(&o->tokens, &o->cap_tokens, o->n_tokens + 1, sizeof(*o->tokens));
	o->n_tokens++;
	o->tokens[i] = (struct token){.hash = hash, .next = *slot};
	snprintf(o->tokens[i].name, sizeof(o->tokens[i].name), "%.*s", (int)strcspn(name, "\n"), name);
	*slot = i;
	return i;
}

/* The token of an object; 0: none that is known, unless `learn`. */
static uint32_t token_of(struct engine *e, struct node *n, bool learn)
{
	static char bytes[ORACLE_CONTENT_MAX * 2];
	struct oracle *o = e->oracle;
	uint64_t hash;
	size_t len;

	if (n->kind == FILE_KIND_DIRECTORY)
		return TOKEN_DIRECTORY;
	if (n->known)
		return n->known;
	if (n->kind == FILE_KIND_SYMLINK) {
		hash = hash_fast(n->target, strlen(n->target), 1);
		snprintf(bytes, sizeof(bytes), "%s", n->target);
		len = strlen(n->target);
	} else {
		len = content_read(n, bytes, sizeof(bytes) - 1, 0);
		hash = hash_fast(bytes, len, 2) ^ n->now.size;
	}
	bytes[len] = 0;
	n->known = token_find(o, hash);
	if (!n->known && learn)
		n->known = token_add(o, hash, len ? bytes : "(empty)");
	return n->known;
}

unsigned oracle_content(struct engine *e, uint64_t *random, char *ret, size_t *ret_n)
{
	unsigned made = ++e->oracle->made;
	uint64_t family, cut = CUT_SEED;

	*ret_n = (size_t)snprintf(ret, 64, "token-%u\n", made);
	if (!random || !sim_one_in(random, 16))
		return made;
	family = sim_below(random, 2); /* eight chunks, and most of them as others have them */
	for (size_t i = 0; *ret_n + 8 * i < LARGE_BYTES; i++) { /* what ret held before is no part of it: a seed decides everything */
		bool ends = i % LARGE_CHUNK_WORDS >= LARGE_CHUNK_WORDS - 8;
		uint64_t x = sim_random(ends ? &cut : &family);

		cut = ends ? cut : CUT_SEED;
		memcpy(ret + *ret_n + 8 * i, &x, 8);
	}
	*ret_n = LARGE_BYTES;
	return made;
}

/* --- spots --- */

static struct spot *spot_find(struct oracle *o, const char *path, uint64_t hash, uint32_t token)
{
	uint32_t i = o->spot_slots[(hash ^ token) % SLOTS];

	while (i && (o->spots[i].hash != hash || o->spots[i].token != token || strcmp(o->spots[i].path, path) != 0))
		i = o->spots[i].next;
	return i ? &o->spots[i] : NULL;
}

static struct spot *spot_get(struct oracle *o, const char *path, uint64_t hash, uint32_t token)
{
	struct spot *s = spot_find(o, path, hash, token);
	uint32_t *slot = &o->spot_slots[(hash ^ token) % SLOTS];

	if (s)
		return s;
	sim_grow(&o->spots, &o->cap_spots, o->n_spots + 1, sizeof(*o->spots));
	s = &o->spots[o->n_spots];
	*s = (struct spot){.path = strdup(path), .hash = hash, .token = token, .next = *slot};
	*slot = (uint32_t)o->n_spots++;
	return s;
}

static uint64_t path_hash(const char *path)
{
	return hash_fast(path, strlen(path), 3);
}

/* Is it put aside, or in a directory that is? (What comes out of an exchange may be one that a user made this moment.) */
static bool is_copy(const char *path)
{
	char above[PATH_BYTES];

	if (conflict_is_copy(path))
		return true;
	for (const char *slash = strchr(path, '/'); slash; slash = strchr(slash + 1, '/')) {
		snprintf(above, sizeof(above), "%.*s", (int)(slash - path), path);
		if (conflict_is_copy(above))
			return true;
	}
	return false;
}

static bool is_ours(const char *path)
{
	return strncmp(path, ".syncd", 6) == 0 && (!path[6] || path[6] == '/');
}

/* --- trees --- */

static void list_below(struct engine *e, struct listing *l, const struct node *dir, const char *path, size_t path_n, bool learn)
{
	for (size_t i = 0; i < dir->n_entries; i++) {
		const struct entry *x = &dir->entries[i];
		size_t len = strlen(x->name), n = path_n + (path_n > 0) + len;
		char *at = l->text + l->text_n;

		if (!dir->parent && strcmp(x->name, ".syncd") == 0)
			continue;
		if (l->text_n + n + 1 > TEXT_BYTES)
			wrong(e, WRONG_OTHER, "a tree is too large for the oracle");
		memcpy(at, path, path_n);
		at[path_n] = '/';
		memcpy(at + n - len, x->name, len + 1);
		l->text_n += n + 1;
		sim_grow(&l->v, &l->cap, l->n + 1, sizeof(*l->v));
		l->v[l->n++] = (struct item){
			.path = at,
			.hash = hash_fast(at, n, 3),
			.token = token_of(e, x->node, learn),
			.node = x->node,
			.ino = x->node->ino,
			.generation = x->node->generation,
			.file = x->node->kind == FILE_KIND_REGULAR,
			.returned = x->node->returned,
			.ctime_ns = x->node->now.ctime_ns,
		};
		x->node->shown = x->node->was_shown = true;
		if (x->node->kind == FILE_KIND_DIRECTORY)
			list_below(e, l, x->node, at, n, learn);
	}
}

static void list(struct site *s, struct listing *l, bool learn)
{
	if (!l->text)
		l->text = malloc(TEXT_BYTES);
	if (!l->text)
		wrong(s->engine, WRONG_OTHER, "out of memory");
	l->n = l->text_n = 0;
	list_below(s->engine, l, s->disk->root, "", 0, learn);
}

static const struct item *listed(const struct listing *l, uint64_t hash, uint32_t token)
{
	for (size_t i = 0; i < l->n; i++)
		if (l->v[i].hash == hash && l->v[i].token == token)
			return &l->v[i];
	return NULL;
}

static const struct item *listed_at(const struct listing *l, uint64_t hash)
{
	for (size_t i = 0; i < l->n; i++)
		if (l->v[i].hash == hash)
			return &l->v[i];
	return NULL;
}

static const struct item *listed_node(const struct listing *l, const struct node *n)
{
	for (size_t i = 0; i < l->n; i++)
		if (l->v[i].node == n)
			return &l->v[i];
	return NULL;
}

static const struct node *entry_of(const struct node *dir, const char *name)
{
	for (size_t i = 0; dir && i < dir->n_entries; i++)
		if (strcmp(dir->entries[i].name, name) == 0)
			return dir->entries[i].node;
	return NULL;
}

static const struct node *ours(const struct site *s, const char *name)
{
	return entry_of(entry_of(s->disk->root, ".syncd"), name);
}

static bool is_below(const struct node *dir, const struct node *n)
{
	for (size_t i = 0; dir && i < dir->n_entries; i++)
		if (dir->entries[i].node == n || is_below(dir->entries[i].node, n))
			return true;
	return false;
}

static bool token_below(struct engine *e, const struct node *dir, uint32_t token)
{
	for (size_t i = 0; dir && i < dir->n_entries; i++) {
		struct node *n = dir->entries[i].node;

		if (n->kind == FILE_KIND_DIRECTORY ? token_below(e, n, token) : token_of(e, n, false) == token)
			return true;
	}
	return false;
}

static bool taken_away(struct oracle *o, const struct item *item)
{
	const struct spot *spot = spot_find(o, item->path, item->hash, item->token);

	return spot && spot->removed;
}

/* Is there, on a replica other than s, the token: at that path, or (hash 0) anywhere, or (kept) where no user took it away? */
static bool others_have(struct engine *e, const struct site *s, uint64_t hash, uint32_t token, bool kept)
{
	struct listing *l = &e->oracle->other;

	for (unsigned i = 0; i < e->n_sites; i++) {
		if (&e->sites[i] == s)
			continue;
		list(&e->sites[i], l, true);
		for (size_t k = 0; k < l->n; k++)
			if (l->v[k].token == token && (!hash || l->v[k].hash == hash) && !(kept && taken_away(e->oracle, &l->v[k])))
				return true;
	}
	return false;
}

uint64_t oracle_tree(struct site *s, bool attributes)
{
	struct listing *l = &s->engine->oracle->other;
	uint64_t sum = 0;

	list(s, l, true);
	for (size_t i = 0; i < l->n; i++) {
		const struct node *n = l->v[i].node;
		uint64_t what[4] = {l->v[i].hash, l->v[i].token, n->kind, 0};

		if (attributes && n->kind == FILE_KIND_REGULAR)
			what[2] |= (uint64_t)n->now.mode << 8;
		if (attributes && n->kind != FILE_KIND_DIRECTORY)
			what[3] = (uint64_t)(n->now.mtime_ns / (2 * CLOCK_NS_PER_S)); /* not all disks can store more */
		sum += hash_fast(what, sizeof(what), 4);
	}
	return sum;
}

static int by_path(const void *a, const void *b)
{
	return strcmp(((const struct item *)a)->path, ((const struct item *)b)->path);
}

void oracle_print_tree(struct site *s)
{
	struct listing *l = &s->engine->oracle->other;

	list(s, l, true);
	if (l->n)
		qsort(l->v, l->n, sizeof(*l->v), by_path);
	fprintf(stderr, "--- %c\n", s->name);
	for (size_t i = 0; i < l->n; i++) {
		const struct node *n = l->v[i].node;

		fprintf(stderr, "%s %s %o %" PRId64 "\n", l->v[i].path, s->engine->oracle->tokens[l->v[i].token].name, n->now.mode,
			n->kind == FILE_KIND_DIRECTORY ? 0 : n->now.mtime_ns / CLOCK_NS_PER_S);
	}
}

/* --- acts --- */

void oracle_before(struct site *s)
{
	struct oracle *o = s->engine->oracle;

	list(s, &o->before, s->excused); /* a disk that failed may have left anything */
	for (size_t i = 0; i < o->before.n; i++)
		if (!o->before.v[i].token)
			wrong(s->engine, WRONG_CONTENT, "%c: %s is nothing that anybody wrote", s->name, o->before.v[i].path);
}

static void appeared(struct site *s, const struct item *now, enum oracle_cause cause)
{
	struct oracle *o = s->engine->oracle;
	const struct item *was = listed_at(&o->before, now->hash);
	struct spot *spot = spot_get(o, now->path, now->hash, now->token);
	/* without an order among names, a directory may be where a user moved it, and have what he had moved out of it before */
	bool mixed = s->acted && s->disk->options.order != SIM_ORDERED;

	if (cause == ORACLE_CRASH && !s->excused && !mixed && now->node->kind == FILE_KIND_REGULAR && !now->node->user_wrote &&
			!spot->placed && !is_copy(now->path) && now->path[strlen(now->path) - 1] != '~') /* a user's own */
		wrong(s->engine, WRONG_EVENT, "%c: after a crash %s is %s", s->name, now->path, o->tokens[now->token].name);
	if (!spot->placed && cause == ORACLE_USER)
		spot->before = was ? was->token : 0;
	spot->placed++;
	if (is_copy(now->path))
		o->tokens[now->token].moved = true;
}

static uint8_t bit_of(const struct site *s)
{
	return (uint8_t)(1 << (s - s->engine->sites));
}

/*
 * Has the site the token still, and keeps it? What an older disk has where a user took it away since then, goes again; and so does
 * what a crash has put back to where a user of another machine took it away.
 */
static bool stays(const struct site *s, uint32_t token, enum oracle_cause cause)
{
	struct oracle *o = s->engine->oracle;

	for (size_t i = 0; i < o->after.n; i++) {
		const struct item *item = &o->after.v[i];
		const struct spot *spot = spot_find(o, item->path, item->hash, token);

		if (item->token == token && !(spot && (cause == ORACLE_RESTORE ? spot->removed : spot->users & ~bit_of(s))))
			return true;
	}
	return false;
}

/* What syncd took from below a directory in this moment, and did not put aside yet, goes with it: as if it had been aside already.
 * path "": from anywhere, where an older disk comes back. */
static void taken_below(struct site *s, const char *path)
{
	struct oracle *o = s->engine->oracle;

	for (size_t i = 0; i < o->n_taken; i++)
		if (o->taken[i].site == s && (!*path || path_is_below(o->taken[i].path, path)))
			o->tokens[o->taken[i].token].removed = true;
}

/* Its name in staging could not be removed as it came (a disk that fails, and cannot rename without replacing): it looks as if it had not
 * been in place yet. */
static bool comes_again(const struct site *s, const struct item *was)
{
	return s->excused && is_below(ours(s, "staging"), was->node);
}

static void vanished(struct site *s, const struct item *was, enum oracle_cause cause)
{
	struct oracle *o = s->engine->oracle;
	struct token *t = &o->tokens[was->token];

	t->trashed = t->trashed || cause == ORACLE_RESTORE || (cause == ORACLE_CRASH && s->older);
	/* what a crash or an older disk took from this one machine, others bring back */
	/* (but for a directory, which another one may have for what is in it only) */
	if (cause == ORACLE_USER || s->excused || (cause == ORACLE_RESTORE && was->token == TOKEN_DIRECTORY) ||
			!others_have(s->engine, s, was->hash, was->token, false)) {
		struct spot *spot = spot_get(o, was->path, was->hash, was->token);

		spot->removed = true;
		if (cause == ORACLE_USER)
			spot->users |= bit_of(s);
		/* what is gone from a replica that may be an older copy is not taken for deleted, and comes again */
		spot->placed += cause != ORACLE_USER || s->older || (s->replica && replica_suspect(s->replica)) || comes_again(s, was);
	}
	t->moved = t->moved || is_copy(was->path);
	if (cause == ORACLE_USER) {
		if (was->token == TOKEN_DIRECTORY)
			taken_below(s, was->path);
		for (size_t i = 0; i < o->after.n; i++)
			if (o->after.v[i].token == was->token && !listed(&o->before, o->after.v[i].hash, was->token))
				return; /* it was moved */
		t->removed = true;
	} else if (!stays(s, was->token, cause) && (s->excused || !others_have(s->engine, s, 0, was->token, true))) {
		t->removed = true;
	}
}

/* What is stored through a mapping is seen when it is closed: until then what was seen at the old name is told at the new one. */
static void moved_while_open(const struct site *s, const struct item *now)
{
	struct oracle *o = s->engine->oracle;
	const struct item *was = listed_node(&o->before, now->node);
	size_t n = o->n_spots;

	if (!was || s->held < 0 || !s->held_stored || sim_handle(s->held)->node != now->node)
		return;
	for (size_t i = 1; i < n; i++)
		if (o->spots[i].hash == was->hash) { /* it may be there for a while, and is not to stay */
			struct spot *spot = spot_get(o, now->path, now->hash, o->spots[i].token);

			spot->placed++;
			spot->removed |= spot->token != now->token;
		}
}

/* Who forgot that it removed something gets it again from others. */
static void forgotten(struct site *s)
{
	struct engine *e = s->engine;
	struct oracle *o = e->oracle;

	for (unsigned i = 0; i < e->n_sites; i++) {
		list(&e->sites[i], &o->other, true);
		for (size_t k = 0; k < o->other.n; k++)
			spot_get(o, o->other.v[k].path, o->other.v[k].hash, o->other.v[k].token)->placed++;
	}
}

static void forget_shown(const struct site *s)
{
	for (size_t i = 0; i < s->disk->n_nodes; i++) { /* what syncd put in place may be back in staging */
		s->disk->nodes[i]->shown = false;
		s->disk->nodes[i]->was_shown &= s->disk->nodes[i]->users;
	}
}

/* Where a crash undid even what syncd did to put it in place, and what a user then did with its name, it came only half-way: whoever
 * sent it has it still. */
static void back_in_staging(const struct site *s)
{
	const struct node *staging = ours(s, "staging");

	for (size_t i = 0; staging && i < staging->n_entries; i++) {
		struct node *n = staging->entries[i].node;
		uint32_t token = n->kind == FILE_KIND_DIRECTORY || n->shown ? 0 : token_of(s->engine, n, false);

		if (token && others_have(s->engine, s, 0, token, false))
			n->was_shown = false;
	}
}

/* A user made it in a directory that had just landed, or wrote into what had, and that is back in staging: it lands once more, or goes back to
 * where it was moved from, with what the crash left of the user's. */
static void left_below(struct site *s, const struct node *dir)
{
	struct oracle *o = s->engine->oracle;

	for (size_t i = 0; dir && i < dir->n_entries; i++) {
		struct node *n = dir->entries[i].node;
		const struct item *was = n->users || n->user_wrote ? listed_node(&o->before, n) : NULL;

		if (was) {
			uint32_t token = token_of(s->engine, n, true);

			spot_get(o, was->path, was->hash, token)->placed++;
			o->tokens[token].undone = true;
		}
		left_below(s, n);
	}
}

/* What was on its way to trash when a disk was copied, file by file, is not known by its inode any more: it is put back. */
static void back_from_staging(const struct site *s)
{
	struct oracle *o = s->engine->oracle;

	for (size_t i = 1; i < o->n_spots; i++)
		if (o->spots[i].removed && token_below(s->engine, ours(s, "staging"), o->spots[i].token))
			o->spots[i].placed++;
}

void oracle_after(struct site *s, enum oracle_cause cause)
{
	struct oracle *o = s->engine->oracle;

	if (cause != ORACLE_USER)
		forget_shown(s);
	if (cause == ORACLE_RESTORE)
		taken_below(s, "");
	list(s, &o->after, true);
	if (cause == ORACLE_CRASH) {
		back_in_staging(s);
		left_below(s, ours(s, "staging"));
	}
	if (cause == ORACLE_RESTORE)
		back_from_staging(s);
	if (s->held >= 0) {
		struct node *n = sim_handle(s->held)->node;
		uint32_t token = token_of(s->engine, n, true);

		s->held_taken |= cause == ORACLE_USER && listed_node(&o->before, n) && !listed_node(&o->after, n);
		/* what he writes there, he can't want to keep; or nobody could tell that it was open, and it is in trash */
		if (!n->links || s->held_taken || (!s->disk->options.abilities.lease && is_below(ours(s, "trash"), n)))
			o->tokens[token].removed = true;
	}
	for (size_t i = 0; i < o->before.n; i++) {
		const struct item *was = &o->before.v[i], *now = listed(&o->after, was->hash, was->token);
		struct spot *spot;

		o->tokens[was->token].anew |= cause == ORACLE_USER && s->older;
		if (!now) {
			vanished(s, was, cause);
		} else if (now->node != was->node && cause == ORACLE_USER) { /* of which a crash may undo the second half */
			spot = spot_get(o, was->path, was->hash, was->token);
			spot->removed = true;
			spot->placed++;
			if (was->token == TOKEN_DIRECTORY) /* an empty one: he put another one over it */
				taken_below(s, was->path);
		}
	}
	for (size_t i = 0; i < o->after.n; i++)
		if (!listed(&o->before, o->after.v[i].hash, o->after.v[i].token)) {
			appeared(s, &o->after.v[i], cause);
			moved_while_open(s, &o->after.v[i]);
		}
	if (cause == ORACLE_RESTORE || (cause == ORACLE_CRASH && s->acted)) /* what was not recorded may be undone */
		forgotten(s);
}

void oracle_met(struct site *s, const char *path)
{
	struct oracle *o = s->engine->oracle;

	for (size_t i = 0; i < o->before.n; i++)
		if (strcmp(o->before.v[i].path, path) == 0 || path_is_below(o->before.v[i].path, path))
			o->tokens[o->before.v[i].token].moved = true;
	for (size_t i = 0; i < o->after.n; i++) /* what he made there, and on the way, goes, too */
		if (o->after.v[i].token == TOKEN_DIRECTORY &&
			(path_is_below(path, o->after.v[i].path) || strcmp(path, o->after.v[i].path) == 0) && !listed(&o->before, o->after.v[i].hash, TOKEN_DIRECTORY))
			spot_get(o, o->after.v[i].path, o->after.v[i].hash, TOKEN_DIRECTORY)->removed = true;
	for (size_t i = 1; i < o->n_spots; i++) /* a directory goes with what it is in, or is about to be in */
		if (o->spots[i].token == TOKEN_DIRECTORY && path_is_below(o->spots[i].path, path))
			o->spots[i].removed = true;
}

bool oracle_unrecorded(struct site *s)
{
	struct oracle *o = s->engine->oracle;
	struct index_txn *t = NULL;
	bool any = false;

	if (index_begin_read(replica_index(s->replica), &t))
		return false;
	for (size_t i = 0; i < o->after.n && !any; i++) {
		const struct item *item = &o->after.v[i];
		struct row row = {0};

		if (listed(&o->before, item->hash, item->token))
			continue;
		any = !item->node->looked_into || index_get(t, item->path, &row) == INDEX_ABSENT; /* came and went between two scans, or no row */
		row_deinit(&row);
	}
	index_abort(t);
	return any;
}

/* A user moved it, or what is above, and back: a crash may undo the second half, and nothing had to be recorded between the two. */
static bool returned(const struct listing *l, const struct item *item)
{
	char at[PATH_BYTES];
	bool any = item->returned;

	snprintf(at, sizeof(at), "%s", item->path);
	for (size_t n = path_parent_length(at); n && !any; n = path_parent_length(at)) {
		const struct item *above;

		at[n] = '\0';
		above = listed_at(l, path_hash(at));
		any = above && above->returned;
	}
	return any;
}

void oracle_recorded(struct site *s)
{
	struct oracle *o = s->engine->oracle;
	struct index_txn *t = NULL;

	if (s->excused || index_begin_read(replica_index(s->replica), &t))
		return;
	list(s, &o->other, true);
	for (size_t i = 0; i < o->before.n; i++) {
		const struct item *was = &o->before.v[i], *now = listed_at(&o->other, was->hash);
		struct row row = {0};

		if (was->file && index_get(t, was->path, &row) == 0 && row.place == ROW_ON_DISK && row_live(&row) &&
			row.stamp.ino == was->ino && row.stamp.generation == was->generation && row.stamp.ctime_ns == was->ctime_ns &&
			(!now || now->node != was->node) && !returned(&o->before, was))
			wrong(s->engine, WRONG_EVENT, "%c: %s was recorded, and is not there after a crash", s->name, was->path);
		row_deinit(&row);
	}
	index_abort(t);
}

void oracle_stored(struct site *s)
{
	struct oracle *o = s->engine->oracle;

	for (size_t i = 0; i < o->after.n; i++) {
		const struct item *was = listed_at(&o->before, o->after.v[i].hash);

		if (listed(&o->before, o->after.v[i].hash, o->after.v[i].token))
			continue;
		o->tokens[o->after.v[i].token].trashed = o->tokens[o->after.v[i].token].stored = true;
		if (was) /* it is taken for that */
			o->tokens[was->token].stored = true;
	}
}

void oracle_heard(struct engine *e)
{
	for (size_t i = 1; i < e->oracle->n_spots; i++)
		e->oracle->spots[i].placed += e->oracle->spots[i].removed;
}

void oracle_deleted(struct site *s, uint64_t before_seq)
{
	struct listing *l = &s->engine->oracle->other;
	struct index_txn *t = NULL;

	list(s, l, true);
	if (index_begin_read(replica_index(s->replica), &t))
		return;
	for (size_t i = 0; i < l->n; i++) {
		struct row row = {0};
		bool deleted = index_get(t, l->v[i].path, &row) == 0 && row_has_record(&row) && !row.record.live &&
			       row.place == ROW_NOT_HERE && row.seq > before_seq;

		row_deinit(&row);
		if (deleted)
			wrong(s->engine, WRONG_TAKEN, "%c: a scan says that %s was deleted, and it is there", s->name, l->v[i].path);
	}
	index_abort(t);
}

bool oracle_linked(struct site *s)
{
	struct oracle *o = s->engine->oracle;

	list(s, &o->other, true);
	for (size_t i = 0; i < o->other.n; i++)
		if (o->other.v[i].node->kind != FILE_KIND_DIRECTORY && o->other.v[i].node->links > 1)
			return true;
	return false;
}

void oracle_cloned(struct site *s)
{
	struct oracle *o = s->engine->oracle;

	forget_shown(s);
	list(s, &o->after, true);
	for (size_t i = 0; i < o->after.n; i++)
		spot_get(o, o->after.v[i].path, o->after.v[i].hash, o->after.v[i].token)->placed++;
}

/* --- while syncd works --- */

/* The path of a name; NULL where it is not in the tree. */
static const char *path_of(const struct side *side, char ret[PATH_BYTES])
{
	const struct node *dir = side->dir;
	char *at = ret + PATH_BYTES - 1;
	size_t n = strlen(side->name);

	*at = 0;
	at -= n;
	memcpy(at, side->name, n);
	for (; dir->parent; dir = dir->parent) {
		const struct entry *x = dir->parent->entries;

		while (x->node != dir)
			x++;
		n = strlen(x->name);
		if (at - ret < (ptrdiff_t)n + 1)
			return NULL;
		*--at = '/';
		at -= n;
		memcpy(at, x->name, n);
	}
	return dir->links && !is_ours(at) ? at : NULL;
}

/* A user moved the directory a moment before something landed in it: as if he had done so a moment later. */
static void moved_with_directory(struct oracle *o, const char *path, uint32_t token)
{
	for (size_t i = 1; i < o->n_spots; i++)
		if (o->spots[i].token == token) {
			o->spots[i].removed = true;
			o->spots[i].placed++;
		}
	spot_get(o, path, path_hash(path), token)->placed++;
}

static void syncd_puts(struct site *s, const char *path, struct node *n)
{
	struct oracle *o = s->engine->oracle;
	uint32_t token = token_of(s->engine, n, false);
	const struct spot *spot;

	if (n->kind == FILE_KIND_DIRECTORY)
		return;
	if (!token)
		wrong(s->engine, WRONG_CONTENT, "%c: syncd puts at %s what nobody wrote", s->name, path);
	o->tokens[token].moved = o->tokens[token].moved || (s->denied && is_copy(path));
	spot = spot_find(o, path, path_hash(path), token);
	if ((s->meddled || o->tokens[token].stored || o->tokens[token].undone) && !(spot && spot->placed)) {
		moved_with_directory(o, path, token);
		return;
	}
	if (!is_copy(path) && !(spot && spot->placed))
		wrong(s->engine, WRONG_CONTENT, "%c: syncd puts %s at %s, where nobody put it", s->name, o->tokens[token].name, path);
}

/* Did the user who acted in this moment move it, or its directory? As if syncd had taken it from its old place a moment before. */
static bool moved_just_now(const struct site *s, const char *path, const struct node *n)
{
	const struct item *was = s->meddled ? listed_node(&s->engine->oracle->before, n) : NULL;

	return was && strcmp(was->path, path) != 0;
}

static void syncd_takes(struct site *s, const char *path, struct node *n, bool lost)
{
	struct oracle *o = s->engine->oracle;
	uint32_t token = token_of(s->engine, n, true);
	bool moved = moved_just_now(s, path, n);

	o->tokens[token].trashed = o->tokens[token].trashed || moved;
	/* its own was; or a crash left two names, and putting aside is undone */
	if (moved || (n->kind == FILE_KIND_DIRECTORY ? s->meddled : is_copy(path) && n->links > 1))
		spot_get(o, path, path_hash(path), token)->removed = true;
	if (n->kind == FILE_KIND_DIRECTORY)
		return;
	if (lost && s->meddled && !s->disk->options.abilities.exchange) { /* between the last look and the renaming: DESIGN.md, Known */
		o->tokens[token].removed = true;
		return;
	}
	if (lost)
		wrong(s->engine, WRONG_LOST, "%c: syncd destroys %s at %s", s->name, o->tokens[token].name, path);
	sim_grow(&o->taken, &o->cap_taken, o->n_taken + 1, sizeof(*o->taken));
	o->taken[o->n_taken++] = (struct taken){s, strdup(path), token};
}

/* A user put it there: is that where he took it, or something in it, away before? */
static void came_back(struct node *n, const char *path)
{
	n->returned = n->returned || n->was_at == path_hash(path);
	for (size_t i = 0; i < n->n_entries; i++) {
		char below[PATH_BYTES];

		if (snprintf(below, sizeof(below), "%s/%s", path, n->entries[i].name) < PATH_BYTES)
			came_back(n->entries[i].node, below);
	}
}

static void on_names(struct sim_disk *d, const struct operation *op, void *data)
{
	struct site *s = data;
	char paths[2][PATH_BYTES];
	const char *path[2] = {NULL, NULL};
	(void)d;

	for (unsigned i = 0; i < op->n; i++)
		path[i] = path_of(&op->side[i], paths[i]);
	s->seen = s->seen && !path[0] && !path[1];
	for (unsigned i = 0; sim.user && i < op->n; i++)
		if (op->side[i].after && path[i])
			came_back(op->side[i].after, path[i]);
	for (unsigned i = 0; i < op->n; i++) {
		struct node *n = op->side[i].before;
		bool last = n && n->links == 1 && !op->made && (op->n == 1 ? !op->side[0].after : op->rename && i == 1);

		if (sim.user && n && path[i])
			n->was_at = path_hash(path[i]);
		if (n && path[i]) {
			n->shown = false;
			n->was_shown = n->was_shown && !sim.user; /* what he takes away may go, also where a second name was left */
		}
		if (sim.user || !n)
			continue;
		if (path[i])
			syncd_takes(s, path[i], n, last);
		else if (last && n->was_shown && n->kind != FILE_KIND_DIRECTORY && !s->engine->expiring && !s->full &&
				!(s->meddled && s->engine->oracle->tokens[token_of(s->engine, n, true)].removed)) /* by a user, this moment */
			wrong(s->engine, WRONG_LOST, "%c: syncd destroys %s, which was in the tree", s->name,
				s->engine->oracle->tokens[token_of(s->engine, n, true)].name);
	}
	for (unsigned i = 0; i < op->n; i++) {
		struct node *n = op->side[i].after;

		if (!n || !path[i])
			continue;
		n->shown = n->was_shown = true;
		n->users = n->users || sim.user;
		if (sim.user)
			continue;
		snprintf(s->landed, sizeof(s->landed), "%s", strlen(path[i]) < sizeof(s->landed) ? path[i] : "");
		syncd_puts(s, path[i], n);
	}
}

static void on_content(struct sim_disk *d, struct node *n, void *data)
{
	const struct site *s = data;

	(void)d;
	if (!sim.user && n->shown)
		wrong(s->engine, WRONG_TORN, "%c: syncd writes into what is in the tree", s->name);
}

void oracle_watch(struct site *s)
{
	struct sim_watcher *w = &s->engine->oracle->watchers[s - s->engine->sites];

	*w = (struct sim_watcher){.names = on_names, .content = on_content, .data = s};
	s->disk->watcher = w;
}

/* After an error of a disk what came out and could not be moved on stays in staging, under its intent. */
static bool waits_in_staging(struct engine *e, uint32_t token)
{
	for (unsigned i = 0; i < e->n_sites; i++)
		if (e->sites[i].excused && token_below(e, ours(&e->sites[i], "staging"), token))
			return true;
	return false;
}

void oracle_check_taken(struct engine *e)
{
	struct oracle *o = e->oracle;
	size_t kept = 0;

	for (size_t i = 0; i < o->n_taken; i++) {
		struct taken *t = &o->taken[i];
		struct spot *spot = spot_find(o, t->path, path_hash(t->path), t->token);

		if (site_died(t->site) || t->site->broken || !t->site->replica || waits_in_staging(e, t->token)) {
			o->taken[kept++] = *t; /* in the middle of something */
			continue;
		}
		if (!(spot && spot->removed) && !o->tokens[t->token].removed) {
			/* the loser of a conflict is aside, here or there; or where its name was denied, or the disk
			 * that had it is an older one now, in trash */
			if ((t->site->denied || o->tokens[t->token].trashed) && token_below(t->site->engine, ours(t->site, "trash"), t->token))
				o->tokens[t->token].removed = true;
			else if (!others_have(e, NULL, 0, t->token, false))
				wrong(e, WRONG_TAKEN, "%c: syncd removed %s from %s, though nobody else did", t->site->name,
					o->tokens[t->token].name, t->path);
		}
		free(t->path);
	}
	o->n_taken = kept;
}

/* --- at the end --- */

/* Did the writer of `late` certainly have `early` there? What was put there more than once, nobody knows. */
static bool descends(struct oracle *o, const struct spot *late, const struct spot *early)
{
	unsigned steps = 0;

	while (late && late != early && late->placed == 1 && late->before && steps++ < 1000)
		late = spot_find(o, late->path, late->hash, late->before);
	return late == early;
}

/* Could two users have come into conflict about the first, as far as we know? Neither had the other's there, or something
 * came to be below, or where a directory above was. */
static bool may_meet(struct oracle *o, const struct spot *a, const struct spot *b)
{
	if (a->token == b->token)
		return a->placed > 1;
	if (a->hash != b->hash)
		return path_is_below(b->path, a->path) || (path_is_below(a->path, b->path) && b->token != TOKEN_DIRECTORY);
	return b->token == TOKEN_DIRECTORY || a->placed > 1 || b->placed > 1 || !(descends(o, a, b) || descends(o, b, a));
}

static void judge_copy(struct engine *e, const char *path, uint32_t token)
{
	struct oracle *o = e->oracle;
	const bool alone = engine_has(e, FEATURE_SINGLE) && !(e->features & CUTTING) && !e->passed_on;
	bool concurrent = (o->tokens[token].moved && !alone) || o->tokens[token].anew || e->cloned;

	for (size_t i = 1; i < o->n_spots && !concurrent && !alone; i++)
		for (size_t k = 1; k < o->n_spots && o->spots[i].token == token && !concurrent; k++)
			concurrent = may_meet(o, &o->spots[i], &o->spots[k]);
	if (!concurrent)
		wrong(e, WRONG_CONFLICT, "%s is %s: in conflict with whom?", path, o->tokens[token].name);
}

static void judge_item(struct engine *e, const struct item *item)
{
	struct oracle *o = e->oracle;
	struct spot *spot = spot_find(o, item->path, item->hash, item->token);

	if (!item->token)
		wrong(e, WRONG_CONTENT, "%s is nothing that anybody wrote", item->path);
	o->tokens[item->token].found = true;
	if (item->node->kind == FILE_KIND_DIRECTORY) {
		if (spot)
			spot->found = true;
		return;
	}
	if (is_copy(item->path)) {
		o->tokens[item->token].copied = true;
		if (spot)
			spot->found = true;
		judge_copy(e, item->path, item->token);
		return;
	}
	if (!spot || !spot->placed)
		wrong(e, WRONG_CONTENT, "%s is %s, which nobody put there", item->path, o->tokens[item->token].name);
	spot->found = true;
	/* what one of two with one past recorded may be recorded anew: see DESIGN.md, "Known" */
	if (spot->removed && spot->placed == 1 && !e->cloned)
		wrong(e, WRONG_RESURRECTED, "%s is %s, which was removed there", item->path, o->tokens[item->token].name);
}

/* What no user took away from where it was put is still there, or beside it after a conflict. */
static void judge_spot(struct engine *e, const struct spot *spot)
{
	struct oracle *o = e->oracle;
	const struct token *t = &o->tokens[spot->token];

	if (spot->removed || spot->found || !spot->placed)
		return;
	if (spot->token != TOKEN_DIRECTORY) {
		if (!t->copied && !t->removed && !t->moved)
			wrong(e, WRONG_TAKEN, "%s: %s is gone from there, though nobody took it away", spot->path, t->name);
		return;
	}
	for (size_t i = 1; i < o->n_spots; i++)
		if (o->spots[i].hash == spot->hash && &o->spots[i] != spot)
			return; /* a directory in conflict with something else */
	wrong(e, WRONG_TAKEN, "%s: a directory that nobody removed is gone", spot->path);
}

/* Of two with one past, one moved it away and the other one back: each saw the version that it says was deleted. Or an older disk came
 * back, and of what was moved on the newer one only the deletion had been told. */
static bool in_trash(struct engine *e, uint32_t token)
{
	for (unsigned i = 0; i < e->n_sites; i++)
		if (token_below(e, ours(&e->sites[i], "trash"), token))
			return true;
	return false;
}

void oracle_judge(struct engine *e)
{
	struct oracle *o = e->oracle;

	list(&e->sites[0], &o->after, false);
	for (size_t i = 0; i < o->after.n; i++)
		judge_item(e, &o->after.v[i]);
	for (size_t i = TOKEN_DIRECTORY + 1; i < o->n_tokens; i++)
		if (!o->tokens[i].found && !o->tokens[i].removed && !((e->cloned || o->tokens[i].trashed) && in_trash(e, (uint32_t)i)))
			wrong(e, WRONG_LOST, "%s is nowhere", o->tokens[i].name);
	for (size_t i = 1; i < o->n_spots; i++)
		judge_spot(e, &o->spots[i]);
}

/* --- --- */

void oracle_new(struct engine *e)
{
	struct oracle *o = sim_alloc(sizeof(*o));

	e->oracle = o;
	token_add(o, 0, ""); /* number 0 is none */
	token_add(o, 1, "(directory)");
	sim_grow(&o->spots, &o->cap_spots, 1, sizeof(*o->spots));
	o->spots[o->n_spots++] = (struct spot){0};
}

static void listing_free(struct listing *l)
{
	free(l->v);
	free(l->text);
}

void oracle_free(struct engine *e)
{
	struct oracle *o = e->oracle;

	for (size_t i = 1; i < o->n_spots; i++)
		free(o->spots[i].path);
	for (size_t i = 0; i < o->n_taken; i++)
		free(o->taken[i].path);
	free(o->tokens);
	free(o->spots);
	free(o->taken);
	listing_free(&o->before);
	listing_free(&o->after);
	listing_free(&o->other);
	free(o);
	e->oracle = NULL;
}
