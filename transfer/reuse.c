/*
 * transfer/reuse.c — see transfer/reuse.h.
 *
 * Open addressing, at most three quarters full; `name` 0 is a free slot. A name's low bits give the slot, its high ones say whether
 * it is kept. Names are seeded, so that nobody can make many that fall on one slot.
 */
#include "transfer/reuse.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/random.h"

#define ENTRIES_MIN 1024
#define NODES_AT_A_TIME 1024 /* in one transaction */

struct entry {
	uint64_t name; /* of a chunk; 0: free */
	uint64_t root; /* name of a root whose tree has it */
};

struct reuse {
	struct entry *v; /* owned; NULL: not built */
	size_t n, cap;	 /* cap: a power of two */
	unsigned kept_bits; /* of a name that is kept, the highest ones are 0 */
	uint64_t seed;
	uint64_t trees;	 /* for index_new_trees */
	bool behind;	 /* there were too many new ones */
	uint64_t missed; /* bytes, since all was read */
	uint64_t nodes;	 /* that were looked at then */
};

/* Walking the trees of one transaction. */
struct trees {
	struct reuse *u;
	struct index_txn *t;
	enum hash_algorithm algorithm;
	uint64_t root; /* of the tree that is walked: its name */
	uint64_t nodes; /* looked at by now */
};

DEFINE_CLEANUP(struct index_txn *, index_abort)

int reuse_new(struct reuse **ret)
{
	struct reuse *u = calloc(1, sizeof(*u));

	if (!u)
		return -ENOMEM;
	*ret = u;
	return 0;
}

void reuse_free(struct reuse *u)
{
	if (!u)
		return;
	free(u->v);
	free(u);
}

/* --- the table --- */

static uint64_t name_of(const struct reuse *u, const struct hash *chunk)
{
	uint64_t name = hash_fast(chunk->bytes, HASH_BYTES, u->seed);

	return name ? name : 1;
}

static bool is_kept(const struct reuse *u, uint64_t name)
{
	return !u->kept_bits || name >> (64 - u->kept_bits) == 0;
}

/* The name's slot, or the free one where it belongs. */
static struct entry *slot_of(const struct reuse *u, uint64_t name)
{
	size_t i = name & (u->cap - 1);

	while (u->v[i].name && u->v[i].name != name)
		i = (i + 1) & (u->cap - 1);
	return &u->v[i];
}

static void insert(struct reuse *u, uint64_t name, uint64_t root)
{
	struct entry *e = slot_of(u, name);

	u->n += !e->name;
	*e = (struct entry){name, root};
}

/* Twice the room, or half of what is kept. */
static int make_room(struct reuse *u)
{
	struct entry *old = u->v;
	size_t old_cap = u->cap, cap = old_cap < REUSE_ENTRIES_MAX ? old_cap * 2 : old_cap;
	struct entry *v = calloc(cap, sizeof(*v));

	if (!v)
		return -ENOMEM;
	u->kept_bits += cap == old_cap;
	u->v = v;
	u->cap = cap;
	u->n = 0;
	for (size_t i = 0; i < old_cap; i++)
		if (old[i].name && is_kept(u, old[i].name))
			insert(u, old[i].name, old[i].root);
	free(old);
	return 0;
}

static int add_chunk(struct reuse *u, const struct hash *chunk, uint64_t root)
{
	uint64_t name = name_of(u, chunk);
	int r = 0;

	while (r == 0 && is_kept(u, name) && u->n >= u->cap / 4 * 3)
		r = make_room(u);
	if (r == 0 && is_kept(u, name))
		insert(u, name, root);
	return r;
}

bool reuse_look(const struct reuse *u, const struct hash *chunk, uint64_t *ret_root)
{
	uint64_t name = name_of(u, chunk);
	const struct entry *e = u->v && is_kept(u, name) ? slot_of(u, name) : NULL;

	if (!e || !e->name)
		return false;
	*ret_root = e->root;
	return true;
}

/* --- trees --- */

static int add_node(struct trees *s, const struct hash *hash, uint8_t level)
{
	cleanup(buf_deinit) struct buf payload = BUF_INIT;
	cleanup_free struct chunk_tree_entry *entries = NULL;
	uint8_t found = 0;
	size_t n = 0;
	int r;

	if (s->nodes++ >= REUSE_NODES_MAX)
		return 0;
	r = index_node_get(s->t, hash, &found, &payload);
	if (r == 0 && found == level)
		r = chunk_tree_decode(s->algorithm, hash, level, payload.data, payload.len, &entries, &n);
	if (r != 0)
		return r == -ENOMEM ? r : 0; /* damaged or gone: who needs it says so */
	for (size_t i = 0; i < n && r == 0; i++)
		if (!entries[i].zero)
			r = level > 1 ? add_node(s, &entries[i].hash, level - 1) : add_chunk(s->u, &entries[i].hash, s->root);
	return r;
}

static int add_tree(const struct hash *root, uint8_t level, void *data)
{
	struct trees *s = data;

	s->root = index_root_name(root);
	return add_node(s, root, level);
}

static int add_file(const char *path, void *data)
{
	struct trees *s = data;
	cleanup(row_deinit) struct row row = {0};
	int r = index_get(s->t, path, &row);

	if (r == 0 && row.record.content.height > 0)
		r = add_tree(&row.record.content.root, row.record.content.height, s);
	return r < 0 ? r : 1; /* others of that name have the same tree */
}

static int read_all(struct trees *s, struct index *x)
{
	struct hash after = {0};
	int r;

	do {
		r = index_begin_read(x, &s->t);
		if (r == 0)
			r = index_roots(s->t, &after, NODES_AT_A_TIME, add_tree, s);
		index_abort(steal(s->t));
	} while (r == INDEX_ROOTS_MORE && s->nodes < REUSE_NODES_MAX);
	return r;
}

static int read_new(struct trees *s, struct index *x, const uint64_t *roots, size_t n)
{
	cleanup(index_abort_p) struct index_txn *t = NULL;
	int r = n ? index_begin_read(x, &t) : 0;

	s->t = t;
	for (size_t i = 0; i < n && r >= 0; i++)
		r = index_by_root(t, roots[i], add_file, s);
	return r;
}

/* Empty, and as small as it can be. */
static int begin_anew(struct reuse *u)
{
	struct entry *v = calloc(ENTRIES_MIN, sizeof(*v));

	if (!v)
		return -ENOMEM;
	free(u->v);
	*u = (struct reuse){.v = v, .cap = ENTRIES_MIN, .seed = random_id(), .trees = u->trees};
	return 0;
}

int reuse_prepare(struct reuse *u, struct replica *replica, uint64_t missing_bytes)
{
	struct index *x = replica_index(replica);
	struct trees s = {.u = u, .algorithm = store_algorithm(replica_store(replica))};
	uint64_t news[INDEX_NEW_TREES];
	size_t n;
	int r = 0;

	u->missed += missing_bytes;
	if (!u->v && u->missed < REUSE_BYTES_MIN)
		return REUSE_NOT_YET;
	u->behind = index_new_trees(x, &u->trees, news, &n) == INDEX_FORGOTTEN || u->behind;
	if (!u->v || (u->behind && u->missed >= REUSE_BYTES_MIN + REUSE_NODE_BYTES * u->nodes)) {
		r = begin_anew(u);
		if (r == 0)
			r = read_all(&s, x);
		u->nodes = s.nodes;
	} else {
		r = read_new(&s, x, news, n);
	}
	return r < 0 ? REUSE_NOT_YET : 0;
}
