/*
 * tests/sim/engine_user.c — users, who wait for nobody; see tests/sim/engine.h. An act is whole for who looks between calls,
 * but for files that are held open. What an act does is found by the oracle, who looks before and after it.
 */
#include "tests/sim/engine.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "merkle/path.h"

struct user {
	struct site *site;
	struct sim_disk *disk;
	uint64_t *random;
	const char *at; /* what he has come for; NULL: nothing */
	char path[USER_PATH_BYTES], other[USER_PATH_BYTES + 1];
};

static bool one_in(struct user *u, unsigned n)
{
	return sim_one_in(u->random, n);
}

static const char *some_name(struct user *u)
{
	static const char *const names[] = {"p", "q", "r", "s.txt"};

	return names[sim_below(u->random, 4)];
}

static void some_path(struct user *u, char *ret)
{
	switch (sim_below(u->random, 5)) {
	case 0:
	case 1:
		snprintf(ret, USER_PATH_BYTES, "%s", some_name(u));
		break;
	case 2:
		snprintf(ret, USER_PATH_BYTES, "%s/%s/%s", some_name(u), some_name(u), some_name(u));
		break;
	default:
		snprintf(ret, USER_PATH_BYTES, "%s/%s", some_name(u), some_name(u));
	}
}

/* The kind of what is there; -1: nothing. */
static int kind_of(struct user *u, const char *path)
{
	struct file_stat st;

	return sim_user_stat(u->disk, path, &st) ? -1 : (int)st.kind;
}

struct pick {
	size_t left;
	char path[USER_PATH_BYTES];
};

static int pick_one(const char *path, const struct file_stat *st, void *data)
{
	struct pick *p = data;

	(void)st;
	if (strncmp(path, ".syncd", 6) == 0 || strlen(path) >= sizeof(p->path))
		return 0;
	snprintf(p->path, sizeof(p->path), "%s", path);
	return p->left-- == 0;
}

/* What is there, as a rule: conflict copies, too. */
static void some_there(struct user *u, char *ret)
{
	struct pick p = {.left = sim_below(u->random, 12)};

	if (u->at) {
		snprintf(ret, USER_PATH_BYTES, "%s", u->at);
		u->at = NULL;
		return;
	}
	some_path(u, ret);
	if (kind_of(u, ret) < 0 && one_in(u, 2) && sim_user_walk(u->disk, "", pick_one, &p) >= 0 && *p.path)
		strcpy(ret, p.path);
}

static void clear(struct user *u, const char *path)
{
	if (kind_of(u, path) >= 0)
		(void)sim_user_remove(u->disk, path);
}

/* Directories on the way; what is in the way goes. */
static void make_parents(struct user *u, const char *path)
{
	char part[USER_PATH_BYTES];

	for (const char *slash = strchr(path, '/'); slash; slash = strchr(slash + 1, '/')) {
		snprintf(part, sizeof(part), "%.*s", (int)(slash - path), path);
		if (kind_of(u, part) == FILE_KIND_DIRECTORY)
			continue;
		clear(u, part);
		(void)sim_user_mkdir(u->disk, part, 0755);
	}
}

/* --- acts --- */

static void act_write(struct user *u)
{
	static char content[ORACLE_CONTENT_MAX];
	bool in_place = one_in(u, 2);
	unsigned token;
	size_t n;

	some_path(u, u->path);
	make_parents(u, u->path);
	token = oracle_content(u->site->engine, u->random, content, &n);
	tell(u->site->engine, "%c writes %s: %u%s%s", u->site->name, u->path, token, n > 1000 ? ", large" : "",
		in_place ? ", in place" : "");
	if (kind_of(u, u->path) != FILE_KIND_REGULAR)
		clear(u, u->path);
	if (in_place) {
		(void)sim_user_write(u->disk, u->path, content, n);
		return;
	}
	snprintf(u->other, sizeof(u->other), "%s~", u->path);
	if (sim_user_write(u->disk, u->other, content, n) || sim_user_rename(u->disk, u->other, u->path))
		clear(u, u->other);
	else if (one_in(u, 2))
		(void)sim_user_fsync(u->disk, u->path);
}

/* Some bytes, other than were ever there. */
static size_t few_bytes(struct user *u, char ret[32])
{
	return (size_t)snprintf(ret, 32, "%016" PRIx64 "\n", sim_random(u->random));
}

static void act_append(struct user *u)
{
	char text[32];
	size_t n = few_bytes(u, text);

	some_there(u, u->path);
	if (kind_of(u, u->path) != FILE_KIND_REGULAR)
		return;
	tell(u->site->engine, "%c appends to %s", u->site->name, u->path);
	(void)sim_user_append(u->disk, u->path, text, n);
}

static void act_truncate(struct user *u)
{
	struct file_stat st;

	some_there(u, u->path);
	if (sim_user_stat(u->disk, u->path, &st) || st.kind != FILE_KIND_REGULAR)
		return;
	tell(u->site->engine, "%c truncates %s", u->site->name, u->path);
	(void)sim_user_truncate(u->disk, u->path, sim_below(u->random, (size_t)st.size + 1));
}

/* Size and mtime stay. */
static void act_rewrite(struct user *u)
{
	static char content[ORACLE_CONTENT_MAX];
	char text[32];
	size_t n, some = few_bytes(u, text);

	some_there(u, u->path);
	if (kind_of(u, u->path) != FILE_KIND_REGULAR || sim_user_read(u->disk, u->path, content, sizeof(content), &n) || !n ||
			n == sizeof(content))
		return;
	memcpy(content, text, n < some ? n : some);
	tell(u->site->engine, "%c writes %s anew, with the size and mtime it had", u->site->name, u->path);
	(void)sim_user_rewrite(u->disk, u->path, content, n);
}

static void act_remove(struct user *u)
{
	some_there(u, u->path);
	if (kind_of(u, u->path) >= 0)
		tell(u->site->engine, "%c deletes %s", u->site->name, u->path);
	clear(u, u->path);
}

/* What is there, and where it may go, in directories that are there (made over what was in the way, which may be itself). */
static bool some_move(struct user *u)
{
	some_there(u, u->path);
	some_path(u, u->other);
	if (kind_of(u, u->path) < 0 || strcmp(u->path, u->other) == 0 || path_is_below(u->path, u->other) ||
			path_is_below(u->other, u->path))
		return false;
	make_parents(u, u->other);
	return true;
}

static void act_rename(struct user *u)
{
	if (!some_move(u))
		return;
	if (kind_of(u, u->path) < 0)
		return; /* it was in the way */
	tell(u->site->engine, "%c renames %s to %s", u->site->name, u->path, u->other);
	if (kind_of(u, u->other) == FILE_KIND_DIRECTORY || kind_of(u, u->path) == FILE_KIND_DIRECTORY)
		clear(u, u->other);
	(void)sim_user_rename(u->disk, u->path, u->other);
}

static void act_swap(struct user *u)
{
	some_there(u, u->path);
	some_there(u, u->other);
	if (kind_of(u, u->path) < 0 || kind_of(u, u->other) < 0 || strcmp(u->path, u->other) == 0)
		return;
	tell(u->site->engine, "%c swaps %s and %s", u->site->name, u->path, u->other);
	(void)sim_user_exchange(u->disk, u->path, u->other);
}

static void act_chmod(struct user *u)
{
	static const uint16_t modes[] = {0600, 0644, 0700, 0755};
	uint16_t mode = modes[sim_below(u->random, 4)];

	some_there(u, u->path);
	if (kind_of(u, u->path) != FILE_KIND_REGULAR && kind_of(u, u->path) != FILE_KIND_DIRECTORY)
		return;
	tell(u->site->engine, "%c changes the mode of %s to %o", u->site->name, u->path, mode);
	(void)sim_user_chmod(u->disk, u->path, mode);
}

static void act_touch(struct user *u)
{
	some_there(u, u->path);
	if (kind_of(u, u->path) < 0)
		return;
	tell(u->site->engine, "%c touches %s", u->site->name, u->path);
	(void)sim_user_touch(u->disk, u->path, (int64_t)(1000000000 + sim_below(u->random, 1000000)) * CLOCK_NS_PER_S);
}

static void act_mkdir(struct user *u)
{
	some_path(u, u->path);
	if (kind_of(u, u->path) == FILE_KIND_DIRECTORY)
		return;
	make_parents(u, u->path);
	clear(u, u->path);
	tell(u->site->engine, "%c makes directory %s", u->site->name, u->path);
	(void)sim_user_mkdir(u->disk, u->path, 0755);
}

static void act_symlink(struct user *u)
{
	static char content[ORACLE_CONTENT_MAX];
	unsigned token;
	size_t n;

	some_path(u, u->path);
	make_parents(u, u->path);
	clear(u, u->path);
	token = oracle_content(u->site->engine, NULL, content, &n);
	tell(u->site->engine, "%c makes symlink %s: %u", u->site->name, u->path, token);
	(void)sim_user_symlink(u->disk, u->path, content);
}

static void act_copy(struct user *u)
{
	if (!some_move(u))
		return;
	clear(u, u->other);
	if (kind_of(u, u->path) < 0)
		return;
	tell(u->site->engine, "%c copies %s to %s", u->site->name, u->path, u->other);
	(void)sim_user_copy(u->disk, u->path, u->disk, u->other);
}

/* Somebody tidies up what is ours. */
static void act_empty_trash(struct user *u)
{
	tell(u->site->engine, "%c empties the trash", u->site->name);
	clear(u, ".syncd/trash");
	if (one_in(u, 2))
		(void)sim_user_mkdir(u->disk, ".syncd/trash", 0700);
}

static const struct {
	void (*act)(struct user *u);
	unsigned weight;
} acts[] = {
	{act_write, 14},
	{act_append, 3},
	{act_truncate, 2},
	{act_rewrite, 3},
	{act_remove, 6},
	{act_rename, 7},
	{act_swap, 2},
	{act_chmod, 3},
	{act_touch, 1},
	{act_mkdir, 2},
	{act_symlink, 2},
	{act_copy, 2},
	{act_empty_trash, 1},
};

static void (*some_act(struct user *u))(struct user *u)
{
	size_t total = 0, at, i = 0;

	for (size_t k = 0; k < sizeof(acts) / sizeof(*acts); k++)
		total += acts[k].weight;
	for (at = sim_below(u->random, total); at >= acts[i].weight; i++)
		at -= acts[i].weight;
	return acts[i].act;
}

static void do_act(struct user *u, void (*act)(struct user *u))
{
	oracle_before(u->site);
	act(u);
	oracle_after(u->site, ORACLE_USER);
	if (u->site->meddled)
		oracle_met(u->site, u->path);
	if (u->site->meddled && *u->other)
		oracle_met(u->site, u->other);
	u->site->acted = true;
}

void user_path(struct site *s, uint64_t *random, char ret[USER_PATH_BYTES])
{
	struct user u = {.site = s, .disk = s->disk, .random = random};

	some_there(&u, ret);
}

void user_act(struct site *s, uint64_t *random)
{
	struct user u = {.site = s, .disk = s->disk, .random = random};

	do_act(&u, some_act(&u));
}

void user_act_at(struct site *s, uint64_t *random, const char *path)
{
	struct user u = {.site = s, .disk = s->disk, .random = random, .at = path};

	do_act(&u, one_in(&u, 4) ? some_act(&u) : act_rewrite);
}

void user_rewrite(struct site *s, uint64_t *random, const char *path)
{
	struct user u = {.site = s, .disk = s->disk, .random = random, .at = path};

	do_act(&u, act_rewrite);
}

void user_hold(struct site *s, uint64_t *random)
{
	struct user u = {.site = s, .disk = s->disk, .random = random};
	char text[32];
	size_t n = few_bytes(&u, text);
	bool stores = false;

	oracle_before(s);
	if (s->held < 0) {
		some_there(&u, u.path);
		s->held = kind_of(&u, u.path) == FILE_KIND_REGULAR ? sim_user_open(s->disk, u.path, 0) : -1;
		if (s->held >= 0)
			tell(s->engine, "%c opens %s for writing", s->name, u.path);
	} else if (one_in(&u, 2)) {
		bool mapped = engine_has(s->engine, FEATURE_STORE) && sim_disk_leases(s->disk);

		tell(s->engine, "%c %s what it has open", s->name, mapped ? "stores into" : "writes");
		stores = s->held_stored;
		(void)(stores ? sim_user_store : sim_user_write_fd)(s->held, text, n, 0);
		s->held_stored = mapped;
	} else {
		tell(s->engine, "%c closes what it has open", s->name);
		site_drop_held(s);
	}
	oracle_after(s, ORACLE_USER);
	if (stores)
		oracle_stored(s);
	s->acted = true;
}
