/*
 * tests/sim/fs_tree.c — nodes, directories, operations on names and attributes. The order in which things are refused is the
 * kernel's (a test compares it with a real file system's).
 */
#include "tests/sim/fs_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define NAME_FOLDED_MAX (3 * FILE_NAME_BYTES_MAX + 1)

/* --- who may --- */

bool node_may(const struct node *n, int what)
{
	const struct sim_host *h = sim.host;
	int shift = n->now.uid == h->uid ? 6 : n->now.gid == h->gid ? 3 : 0;

	return sim.user || h->uid == 0 || (n->now.mode >> shift & what) == what;
}

bool node_mine(const struct node *n)
{
	return sim.user || sim.host->uid == 0 || sim.host->uid == n->now.uid;
}

/* --- numbers --- */

static uint64_t ino_take(struct sim_disk *d)
{
	uint64_t ino;

	if (d->options.new_inodes)
		return d->next_ino++;
	for (size_t i = 0; i < d->n_inos; i++) {
		if (d->inos[i] == UINT64_MAX)
			continue;
		ino = (uint64_t)__builtin_ctzll(~d->inos[i]);
		d->inos[i] |= UINT64_C(1) << ino;
		return i * 64 + ino + ROOT_INO;
	}
	sim_grow(&d->inos, &d->cap_inos, d->n_inos + 1, sizeof(*d->inos));
	d->inos[d->n_inos++] = 1;
	return (d->n_inos - 1) * 64 + ROOT_INO;
}

static void ino_release(struct sim_disk *d, uint64_t ino)
{
	if (!d->options.new_inodes)
		d->inos[(ino - ROOT_INO) / 64] &= ~(UINT64_C(1) << (ino - ROOT_INO) % 64);
}

void inos_rebuild(struct sim_disk *d)
{
	if (d->options.new_inodes)
		return;
	d->n_inos = 0;
	for (size_t i = 0; i < d->n_nodes; i++) {
		size_t at = (d->nodes[i]->ino - ROOT_INO) / 64;

		if (d->nodes[i]->released)
			continue;
		sim_grow(&d->inos, &d->cap_inos, at + 1, sizeof(*d->inos));
		while (d->n_inos <= at)
			d->inos[d->n_inos++] = 0;
		d->inos[at] |= UINT64_C(1) << (d->nodes[i]->ino - ROOT_INO) % 64;
	}
}

/* --- nodes --- */

static int64_t tick_now(const struct sim_disk *d)
{
	int64_t now = sim_wall_ns(d->host), rest = now % d->options.tick_ns;

	return now - (rest < 0 ? rest + d->options.tick_ns : rest);
}

/* As the clock ticks; but where times are exact, after a look the very moment, which no time of before may hide from then on. */
static int64_t stamp_now(struct sim_disk *d, struct node *n)
{
	int64_t now = sim_wall_ns(d->host), at = tick_now(d), finest;

	if (!d->options.abilities.exact_times)
		return at;
	if (n->shown_time) /* kept by the monotonic clock, as the kernel does: who sets the wall clock does not move it */
		d->finest_ns = sim.now_ns + (now == n->now.ctime_ns);
	n->shown_time = false;
	finest = d->finest_ns + now - sim.now_ns;
	return at > finest ? at : finest;
}

struct node *node_new(struct sim_disk *d, enum file_kind kind, uint16_t mode)
{
	struct node *n = sim_alloc(sizeof(*n));

	n->ino = ino_take(d);
	n->generation = (uint32_t)sim_random(&d->random);
	n->kind = kind;
	n->now.mode = mode;
	n->now.mtime_ns = n->now.ctime_ns = n->btime_ns = stamp_now(d, n);
	n->allocated = NODE_BYTES;
	n->at = d->n_nodes;
	d->used += NODE_BYTES;
	sim_grow(&d->nodes, &d->cap_nodes, d->n_nodes + 1, sizeof(*d->nodes));
	d->nodes[d->n_nodes++] = n;
	return n;
}

void node_free(struct sim_disk *d, struct node *n)
{
	if (n->listed)
		crash_forget(d, n);
	content_free(d, n);
	for (size_t i = 0; i < n->n_entries; i++)
		free(n->entries[i].name);
	free(n->entries);
	free(n->extents);
	free(n->target);
	if (!n->released) {
		ino_release(d, n->ino);
		d->used -= n->allocated;
	}
	d->nodes[n->at] = d->nodes[--d->n_nodes];
	d->nodes[n->at]->at = n->at;
	free(n);
}

void node_let_go(struct sim_disk *d, struct node *n)
{
	if (n->links || n->handles)
		return;
	if (!n->pending) {
		node_free(d, n);
		return;
	}
	if (!n->released) {
		n->released = true;
		ino_release(d, n->ino);
		d->used -= n->allocated;
	}
}

void node_stamp(struct sim_disk *d, struct node *n, bool mtime)
{
	n->now.ctime_ns = stamp_now(d, n);
	if (mtime)
		n->now.mtime_ns = n->now.ctime_ns;
	if (!n->attributes_dirty) {
		n->attributes_dirty = true;
		crash_dirty(d, n);
	}
}

void node_stat(const struct sim_disk *d, struct node *n, struct file_stat *ret)
{
	bool directory = n->kind == FILE_KIND_DIRECTORY;

	n->shown_time = true;
	*ret = (struct file_stat){
		.kind = n->kind,
		.mode = n->now.mode,
		.uid = n->now.uid,
		.gid = n->now.gid,
		.nlink = directory && n->links ? 2 + n->subdirectories : n->links,
		.size = directory ? PAGE_BYTES : n->now.size,
		.blocks = (n->allocated - NODE_BYTES) / 512,
		.ino = n->ino,
		.dev = d->dev,
		.mtime_ns = n->now.mtime_ns,
		.ctime_ns = n->now.ctime_ns,
		.btime_ns = d->options.birth_times ? n->btime_ns : 0,
	};
}

void node_written(struct sim_disk *d, struct node *n)
{
	if (!sim.user && sim.host->uid)
		n->now.mode &= (uint16_t)~(n->now.mode & 010 ? 06000 : 04000);
	node_stamp(d, n, true);
}

int node_chmod(struct sim_disk *d, struct node *n, uint16_t mode)
{
	if (d->read_only)
		return -EROFS;
	if (!node_mine(n))
		return -EPERM;
	if (!sim.user && sim.host->uid && n->now.gid != sim.host->gid)
		mode &= (uint16_t)~02000;
	n->now.mode = mode;
	node_stamp(d, n, false);
	return 0;
}

int node_chown(struct sim_disk *d, struct node *n, uint32_t uid, uint32_t gid)
{
	if (d->read_only)
		return -EROFS;
	if (!sim.user && sim.host->uid &&
		(sim.host->uid != n->now.uid || uid != n->now.uid || (gid != n->now.gid && gid != sim.host->gid)))
		return -EPERM;
	n->now.uid = uid;
	n->now.gid = gid;
	if (n->kind == FILE_KIND_REGULAR)
		n->now.mode &= (uint16_t)~(n->now.mode & 010 ? 06000 : 04000);
	node_stamp(d, n, false);
	return 0;
}

int node_touch(struct sim_disk *d, struct node *n, int64_t mtime_ns)
{
	const int64_t step = d->options.abilities.time_granularity_ns;
	int64_t rest = mtime_ns % step;

	if (d->read_only)
		return -EROFS;
	if (!node_mine(n))
		return -EPERM;
	node_stamp(d, n, false);
	n->now.mtime_ns = mtime_ns - (rest < 0 ? rest + step : rest);
	return 0;
}

int node_break_leases(struct node *n)
{
	int r = 0;

	for (size_t i = 0; i < sim.n_descriptors && n->handles; i++) {
		struct handle *h = sim.descriptors[i].handle;

		if (!h || h->node != n || h->lease == LEASE_NONE)
			continue;
		h->lease = LEASE_BROKEN;
		r = -EAGAIN;
	}
	return r;
}

bool node_lease_broken(const struct node *n)
{
	for (size_t i = 0; i < sim.n_descriptors; i++) {
		const struct handle *h = sim.descriptors[i].handle;

		if (h && h->node == n && h->lease == LEASE_BROKEN)
			return true;
	}
	return false;
}

/* --- names --- */

/* U+00C0 … U+00FF as letter and combining mark (U+0300 …); 0: they stay. */
static const char composed[64][2] = {
	"A\x80", "A\x81", "A\x82", "A\x83", "A\x88", "A\x8a", "", "C\xa7", "E\x80", "E\x81", "E\x82", "E\x88", "I\x80", "I\x81",
	"I\x82", "I\x88", "", "N\x83", "O\x80", "O\x81", "O\x82", "O\x83", "O\x88", "", "", "U\x80", "U\x81", "U\x82", "U\x88",
	"Y\x81", "", "", "a\x80", "a\x81", "a\x82", "a\x83", "a\x88", "a\x8a", "", "c\xa7", "e\x80", "e\x81", "e\x82", "e\x88",
	"i\x80", "i\x81", "i\x82", "i\x88", "", "n\x83", "o\x80", "o\x81", "o\x82", "o\x83", "o\x88", "", "", "u\x80", "u\x81",
	"u\x82", "u\x88", "y\x81", "", "y\x88"};

static const char *decomposed(const char *name, char *ret)
{
	uint8_t *to = (uint8_t *)ret;

	for (const uint8_t *p = (const uint8_t *)name; *p; p++) {
		const char *c = p[0] == 0xc3 && p[1] >= 0x80 && p[1] < 0xc0 ? composed[p[1] - 0x80] : "";

		if (!*c) {
			*to++ = *p;
			continue;
		}
		*to++ = (uint8_t)c[0];
		*to++ = 0xcc;
		*to++ = (uint8_t)c[1];
		p++;
	}
	*to = 0;
	return ret;
}

/* What two names that are one have in common. */
static const char *folded(const struct sim_disk *d, const char *name, char *ret)
{
	if (d->options.abilities.fold_unicode)
		name = decomposed(name, ret);
	if (d->options.abilities.fold_case) {
		size_t i;

		for (i = 0; name[i]; i++)
			ret[i] = name[i] >= 'A' && name[i] <= 'Z' ? (char)(name[i] + 32) : name[i];
		ret[i] = 0;
		name = ret;
	}
	return name;
}

static bool same_name(const struct sim_disk *d, const char *a, const char *b)
{
	char x[NAME_FOLDED_MAX], y[NAME_FOLDED_MAX];

	return strcmp(folded(d, a, x), folded(d, b, y)) == 0;
}

uint32_t tree_hash(const struct sim_disk *d, const char *name)
{
	char text[NAME_FOLDED_MAX];
	uint64_t h = d->hash_seed;

	for (const char *p = folded(d, name, text); *p; p++)
		h = (h ^ (uint8_t)*p) * UINT64_C(0x100000001b3);
	return (uint32_t)(h ^ h >> 32);
}

/* Where a hash stands, or would. */
static size_t place_of(const struct node *dir, uint32_t hash)
{
	size_t low = 0, high = dir->n_entries;

	while (low < high) {
		size_t middle = (low + high) / 2;

		if (dir->entries[middle].hash < hash)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

static struct entry *find_hashed(const struct sim_disk *d, const struct node *dir, const char *name, uint32_t hash)
{
	for (size_t i = place_of(dir, hash); i < dir->n_entries && dir->entries[i].hash == hash; i++)
		if (same_name(d, dir->entries[i].name, name))
			return &dir->entries[i];
	return NULL;
}

struct entry *tree_find(const struct sim_disk *d, const struct node *dir, const char *name)
{
	return find_hashed(d, dir, name, tree_hash(d, name));
}

static void entry_add(struct sim_disk *d, struct node *dir, const char *name, uint32_t hash, struct node *n)
{
	char text[NAME_FOLDED_MAX];
	size_t at = place_of(dir, hash);

	sim_grow(&dir->entries, &dir->cap_entries, dir->n_entries + 1, sizeof(*dir->entries));
	memmove(&dir->entries[at + 1], &dir->entries[at], (dir->n_entries - at) * sizeof(*dir->entries));
	dir->n_entries++;
	dir->entries[at] = (struct entry){
		.hash = hash, .node = n, .name = strdup(d->options.decomposes ? decomposed(name, text) : name)};
}

static void entry_drop(struct node *dir, struct entry *e)
{
	size_t at = (size_t)(e - dir->entries);

	free(e->name);
	dir->n_entries--;
	memmove(e, e + 1, (dir->n_entries - at) * sizeof(*e));
}

static void attach(struct node *dir, struct node *n)
{
	n->links++;
	if (n->kind == FILE_KIND_DIRECTORY) {
		n->parent = dir;
		dir->subdirectories++;
	}
}

static void detach(struct node *dir, struct node *n)
{
	n->links--;
	if (n->kind == FILE_KIND_DIRECTORY) {
		n->parent = NULL;
		dir->subdirectories--;
	}
}

void tree_set(struct sim_disk *d, struct node *dir, const char *name, struct node *n)
{
	uint32_t hash = tree_hash(d, name);
	struct entry *e = find_hashed(d, dir, name, hash);

	if (e && n)
		e->node = n;
	else if (e)
		entry_drop(dir, e);
	else if (n)
		entry_add(d, dir, name, hash, n);
}

/* --- looking --- */

int tree_lookup(struct sim_disk *d, struct node *dir, const char *name, struct entry **ret)
{
	if (dir->kind != FILE_KIND_DIRECTORY)
		return -ENOTDIR;
	if (!node_may(dir, MAY_SEARCH))
		return -EACCES;
	*ret = tree_find(d, dir, name);
	return *ret ? 0 : -ENOENT;
}

int tree_resolve(struct sim_disk *d, struct node *from, const char *path, struct node **ret)
{
	char name[FILE_NAME_BYTES_MAX + 1];
	struct node *at = from;
	struct entry *e;
	int r;

	while (*path) {
		size_t n = strcspn(path, "/");

		memcpy(name, path, n);
		name[n] = 0;
		path += n + (path[n] == '/');
		r = tree_lookup(d, at, name, &e);
		if (r < 0)
			return r;
		if (e->covered)
			return -EXDEV;
		if (e->node->kind != FILE_KIND_DIRECTORY)
			return e->node->kind == FILE_KIND_SYMLINK ? -ELOOP : -ENOTDIR;
		at = e->node;
	}
	*ret = at;
	return 0;
}

/* --- changing --- */

static struct side side_of(struct sim_disk *d, struct node *dir, const char *name, struct node *before, struct node *after)
{
	return (struct side){.dir = dir, .before = before, .after = after, .name = (char *)name, .hash = tree_hash(d, name)};
}

static int may_change(struct sim_disk *d, const struct node *dir)
{
	if (dir->kind != FILE_KIND_DIRECTORY)
		return -ENOTDIR;
	if (d->read_only)
		return -EROFS;
	return node_may(dir, MAY_WRITE | MAY_SEARCH) ? 0 : -EACCES;
}

/* A new name: there must be none yet. */
static int may_add(struct sim_disk *d, struct node *dir, const char *name)
{
	struct entry *e;
	int r = tree_lookup(d, dir, name, &e);

	if (r == 0)
		return -EEXIST;
	if (r != -ENOENT)
		return r;
	return dir->links ? may_change(d, dir) : -ENOENT;
}

int tree_make(struct sim_disk *d, struct node *dir, const char *name, enum file_kind kind, uint16_t mode,
	const char *target, struct node **ret)
{
	struct operation o = {.n = 1};
	struct node *n;
	int r = may_add(d, dir, name);

	if (r < 0)
		return r;
	if (d->options.capacity && d->used + NODE_BYTES > d->options.capacity)
		return -ENOSPC;
	if (kind != FILE_KIND_SYMLINK)
		mode &= (uint16_t)~(sim.user ? 0 : sim.host->umask);
	n = node_new(d, kind, mode);
	n->now.uid = sim.user ? dir->now.uid : sim.host->uid;
	n->now.gid = sim.user || dir->now.mode & 02000 ? dir->now.gid : sim.host->gid;
	if (kind == FILE_KIND_DIRECTORY)
		n->now.mode |= dir->now.mode & 02000;
	if (target) {
		n->target = strdup(target);
		n->now.size = n->size_min = strlen(target); /* it is made in one step */
	}
	n->durable = n->now;
	entry_add(d, dir, name, tree_hash(d, name), n);
	attach(dir, n);
	node_stamp(d, dir, true);
	o.side[0] = side_of(d, dir, name, NULL, n);
	o.made = n;
	crash_log(d, &o);
	if (ret)
		*ret = n;
	return 0;
}

int tree_remove(struct sim_disk *d, struct node *dir, const char *name, bool directory)
{
	struct operation o = {.n = 1};
	struct entry *e;
	struct node *n;
	int r;

	if (!node_may(dir, MAY_SEARCH))
		return -EACCES;
	if (d->read_only)
		return -EROFS;
	r = tree_lookup(d, dir, name, &e);
	if (r == 0)
		r = may_change(d, dir);
	if (r < 0)
		return r;
	n = e->node;
	if (directory != (n->kind == FILE_KIND_DIRECTORY))
		return directory ? -ENOTDIR : -EISDIR;
	if (e->covered)
		return -EBUSY;
	if (n->n_entries)
		return -ENOTEMPTY;
	o.side[0] = side_of(d, dir, name, n, NULL);
	crash_log(d, &o);
	entry_drop(dir, e);
	detach(dir, n);
	node_stamp(d, dir, true);
	node_stamp(d, n, false);
	node_let_go(d, n);
	return 0;
}

int tree_link(struct sim_disk *d, struct node *from_dir, const char *from, struct node *dir, const char *name)
{
	struct operation o = {.n = 1};
	struct entry *e;
	int r = tree_lookup(d, from_dir, from, &e);

	if (r == 0)
		r = may_add(d, dir, name);
	if (r < 0)
		return r;
	if (e->covered)
		return -EXDEV;
	if (e->node->kind == FILE_KIND_DIRECTORY || !d->options.hard_links)
		return -EPERM;
	o.side[0] = side_of(d, dir, name, NULL, e->node);
	crash_log(d, &o);
	attach(dir, e->node);
	node_stamp(d, e->node, false);
	entry_add(d, dir, name, o.side[0].hash, o.side[0].after);
	node_stamp(d, dir, true);
	return 0;
}

static bool is_above(const struct node *above, const struct node *n)
{
	while (n && n != above)
		n = n->parent;
	return n != NULL;
}

/* What the kernel looks at first; `to` may be NULL. */
static int may_move(const struct node *from_dir, const struct entry *from, const struct node *to_dir, const struct entry *to,
	enum rename how)
{
	if (how == RENAME_NEW && to)
		return -EEXIST;
	if (how == RENAME_BOTH && !to)
		return -ENOENT;
	if (from->node->kind == FILE_KIND_DIRECTORY && is_above(from->node, to_dir))
		return -EINVAL;
	if (to && to->node->kind == FILE_KIND_DIRECTORY && is_above(to->node, from_dir))
		return how == RENAME_BOTH ? -EINVAL : -ENOTEMPTY;
	return 0;
}

static bool may_leave(const struct node *n, const struct node *from, const struct node *to)
{
	return from == to || n->kind != FILE_KIND_DIRECTORY || node_may(n, MAY_WRITE);
}

/* And then; they are not names of one node. */
static int may_rename(struct sim_disk *d, struct node *from_dir, const struct entry *from, struct node *to_dir,
	const struct entry *to, enum rename how)
{
	bool directory = from->node->kind == FILE_KIND_DIRECTORY;
	int r = may_change(d, from_dir);

	if (r == 0 && !to_dir->links)
		r = -ENOENT;
	if (r == 0)
		r = may_change(d, to_dir);
	if (r < 0)
		return r;
	if (to && how == RENAME_OVER && directory != (to->node->kind == FILE_KIND_DIRECTORY))
		return directory ? -ENOTDIR : -EISDIR;
	if (!may_leave(from->node, from_dir, to_dir) || (how == RENAME_BOTH && !may_leave(to->node, to_dir, from_dir)))
		return -EACCES;
	if (from->covered || (to && to->covered))
		return -EBUSY;
	return to && how == RENAME_OVER && to->node->n_entries ? -ENOTEMPTY : 0;
}

static void stamp_renamed(struct sim_disk *d, struct node *n)
{
	if (d->options.rename_ctime)
		node_stamp(d, n, false);
}

static void exchange(struct sim_disk *d, struct node *dir1, struct entry *e1, struct node *dir2, struct entry *e2)
{
	struct node *n1 = e1->node, *n2 = e2->node;

	detach(dir1, n1);
	detach(dir2, n2);
	attach(dir1, n2);
	attach(dir2, n1);
	e1->node = n2;
	e2->node = n1;
	stamp_renamed(d, n2);
}

static void replace(struct sim_disk *d, struct node *from_dir, const char *from, struct node *to_dir, const char *to,
	struct node *n, struct entry *e)
{
	struct node *gone = e ? e->node : NULL;

	if (gone) {
		detach(to_dir, gone);
		e->node = n;
	} else {
		entry_add(d, to_dir, to, tree_hash(d, to), n);
	}
	detach(from_dir, n);
	attach(to_dir, n);
	entry_drop(from_dir, tree_find(d, from_dir, from));
	if (gone) {
		node_stamp(d, gone, false);
		node_let_go(d, gone);
	}
}

int tree_rename(struct sim_disk *d, struct node *from_dir, const char *from, struct node *to_dir, const char *to,
	enum rename how)
{
	struct operation o = {.n = 2, .rename = how != RENAME_BOTH};
	struct entry *e1, *e2 = NULL;
	struct node *n;
	int r;

	if (!node_may(from_dir, MAY_SEARCH) || !node_may(to_dir, MAY_SEARCH))
		return -EACCES;
	if ((how == RENAME_BOTH && !d->options.abilities.exchange) || (how == RENAME_NEW && !d->options.abilities.no_replace))
		return -EINVAL;
	if (d->read_only)
		return -EROFS;
	r = tree_lookup(d, from_dir, from, &e1);
	if (r < 0)
		return r;
	r = tree_lookup(d, to_dir, to, &e2);
	if (r == 0 || r == -ENOENT)
		r = may_move(from_dir, e1, to_dir, e2, how);
	if (r < 0 || (e2 && e2->node == e1->node))
		return r;
	r = may_rename(d, from_dir, e1, to_dir, e2, how);
	if (r < 0)
		return r;
	n = e1->node;
	o.side[0] = side_of(d, from_dir, from, n, how == RENAME_BOTH ? e2->node : NULL);
	o.side[1] = side_of(d, to_dir, to, e2 ? e2->node : NULL, n);
	crash_log(d, &o);
	if (how == RENAME_BOTH)
		exchange(d, from_dir, e1, to_dir, e2);
	else
		replace(d, from_dir, from, to_dir, to, n, e2);
	stamp_renamed(d, n);
	node_stamp(d, from_dir, true);
	node_stamp(d, to_dir, true);
	return 0;
}
