/*
 * merkle/scan_object.c — one object on disk, read so that a change meanwhile shows.
 *
 * A file is read through one descriptor, with equal stats before and after: ctime cannot be set, so
 * that equal means unchanged, but for what happens within one tick of the clock; such stamps are
 * "racily clean" and are looked at again.
 */
#include "merkle/scan_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/error.h"

#define CANDIDATES_MAX 8
#define LOOK_CHUNKS 64 /* of a large file are read before it is looked at whether it is being written */

DEFINE_CLEANUP(struct index_txn *, index_abort)

void scan_nodes_free(struct chunk_tree_node *nodes, size_t n)
{
	for (size_t k = 0; k < n; k++)
		free(nodes[k].payload);
	free(nodes);
}

static void drop_nodes(struct scan_object *o)
{
	scan_nodes_free(o->nodes, o->n_nodes);
	o->nodes = NULL;
	o->n_nodes = o->cap_nodes = 0;
}

void scan_object_deinit(struct scan_object *o)
{
	drop_nodes(o);
	free(o->target);
	*o = (struct scan_object){0};
}

void stamp_of(const struct file_stat *st, struct stamp *ret)
{
	*ret = (struct stamp){
		.ino = st->ino,
		.size = st->size,
		.mtime_ns = st->mtime_ns,
		.ctime_ns = st->ctime_ns,
		.mode = st->mode,
		.uid = st->uid,
		.gid = st->gid,
		.nlink = st->nlink,
	};
}

uint8_t scan_kind(const struct file_stat *st)
{
	switch (st->kind) {
	case FILE_KIND_REGULAR:
		return RECORD_FILE;
	case FILE_KIND_DIRECTORY:
		return RECORD_DIRECTORY;
	case FILE_KIND_SYMLINK:
		return RECORD_SYMLINK;
	case FILE_KIND_OTHER:
		break;
	}
	return 0;
}

/* now - then, as far as that fits: whoever sets an mtime has the choice of centuries. */
static int64_t since(int64_t now, int64_t then)
{
	int64_t age;

	if (__builtin_sub_overflow(now, then, &age))
		return then < 0 ? INT64_MAX : INT64_MIN;
	return age;
}

/* ctime decides, as nobody can set it; one far in the future (another machine's clock) proves
 * nothing either. mtime is asked for file systems that have no ctime worth the name; one set to a
 * far future is not taken for a recent change. */
bool scan_young(const struct stamp *stamp, int64_t recorded_ns, int64_t window_ns)
{
	int64_t since_mtime = since(recorded_ns, stamp->mtime_ns);

	return since(recorded_ns, stamp->ctime_ns) < window_ns ||
	       (since_mtime < window_ns && since_mtime > -window_ns);
}

bool scan_racy(const struct store *store, const struct stamp *stamp, int64_t recorded_ns, int64_t window_ns)
{
	return !store_exact(store, stamp) && scan_young(stamp, recorded_ns, window_ns);
}

static bool unchanged(const struct file_stat *a, const struct file_stat *b)
{
	return a->kind == b->kind && a->ino == b->ino && a->dev == b->dev && a->size == b->size &&
	       a->mtime_ns == b->mtime_ns && a->ctime_ns == b->ctime_ns;
}

/* Between the look at a name and the look inside. */
static int meanwhile(int r)
{
	return r == FILE_VANISHED || r == FILE_OUTSIDE || r == FILE_UNSUPPORTED ? FILE_BUSY : r;
}

static int add_node(
	const struct hash *hash, uint8_t level, const void *payload, size_t n, void *data)
{
	struct scan_object *o = data;
	struct chunk_tree_node node = {.hash = *hash, .level = level, .n = (uint32_t)n};
	int r = array_reserve(&o->nodes, &o->cap_nodes, o->n_nodes + 1, sizeof(*o->nodes));

	if (r)
		return r;
	node.payload = malloc(n ? n : 1);
	if (!node.payload)
		return -ENOMEM;
	memcpy(node.payload, payload, n);
	o->nodes[o->n_nodes++] = node;
	return 0;
}

/* Someone who is at it will close the file, and that will be noticed. *ret_none: nobody is, for sure. */
static int being_written(const struct scan_object *o, int fd, bool exact_times, bool *ret_none)
{
	int64_t now = clock_wall_ns(), age = since(now, o->st.mtime_ns);
	bool young = age < SCAN_RACY_NS && age >= -SCAN_RACY_NS;
	int r;

	*ret_none = false;
	if (!young && !(exact_times && since(now, o->st.ctime_ns) < SCAN_RACY_NS))
		return 0;
	r = file_lease_read(fd);
	if (r == 0)
		r = file_lease_release(fd);
	*ret_none = r == 0;
	return r == FILE_BUSY && young ? FILE_BUSY : 0;
}

static int open_same(const struct scan_object *o, int dir, const char *name, int *ret_fd)
{
	cleanup_close int fd = -1;
	struct file_stat st;
	int r = file_open_seen(dir, name, &fd, &st);

	if (r)
		return meanwhile(r);
	if (!unchanged(&st, &o->st))
		return FILE_BUSY;
	*ret_fd = steal_fd(fd);
	return 0;
}

/* A large file that is written meanwhile is not read to its end: it is to be read again anyway. */
struct reading {
	const struct scan_object *o;
	int fd;
	unsigned chunks;
	bool changed;
};

static bool reading_cancelled(void *data)
{
	struct reading *r = data;
	struct file_stat st;

	if (r->o->cancelled && r->o->cancelled(r->o->data))
		return true;
	if (++r->chunks % LOOK_CHUNKS == 0)
		r->changed = file_stat_fd(r->fd, &st) == 0 && !unchanged(&st, &r->o->st);
	return r->changed;
}

static int read_file(struct scan_object *o, const struct store *store, int dir,
	const char *name, uint8_t bits)
{
	struct reading reading = {.o = o};
	struct chunker_file file = {
		.size = o->st.size,
		.bits = bits,
		.algorithm = store_algorithm(store),
		.pool = o->pool,
		.pace = o->pace,
		.cancelled = reading_cancelled,
		.data = &reading,
	};
	cleanup_close int fd = -1;
	struct file_stat after;
	const uint32_t mount = store_mount(store);
	bool nobody_writes;
	int r = open_same(o, dir, name, &fd);

	if (!r)
		r = being_written(o, fd, mount != 0, &nobody_writes);
	if (r)
		return r;
	r = file_generation(fd, &o->generation);
	if (r < 0) /* an outcome: there is none to be had, 0 */
		return r;
	file.fd = reading.fd = fd;
	r = chunk_tree_of(&file, add_node, o, &o->content);
	if (r)
		return r == CHUNKER_CHANGED || reading.changed ? FILE_BUSY : r;
	r = file_stat_fd(fd, &after);
	if (r)
		return r;
	o->exact = nobody_writes ? mount : 0;
	return unchanged(&after, &o->st) ? 0 : FILE_BUSY;
}

static int read_symlink(
	struct scan_object *o, enum hash_algorithm algorithm, int dir, const char *name)
{
	cleanup_free char *target = NULL;
	struct file_stat after;
	size_t n;
	int r = file_readlink(dir, name, &target);

	if (!r)
		r = file_stat_at(dir, name, &after);
	if (r)
		return meanwhile(r);
	if (!unchanged(&after, &o->st))
		return FILE_BUSY;
	n = strlen(target);
	if (n > RECORD_TARGET_BYTES_MAX)
		return -ENAMETOOLONG;
	o->content = (struct content){.size = n};
	hash_bytes(algorithm, target, n, &o->content.root);
	o->target = steal(target);
	return 0;
}

int scan_object_read(struct scan_object *o, const struct store *store, int dir,
	const char *name, uint8_t bits)
{
	int r;

	drop_nodes(o);
	if (o->st.kind == FILE_KIND_SYMLINK)
		return read_symlink(o, store_algorithm(store), dir, name);
	r = read_file(o, store, dir, name, bits);
	if (r)
		drop_nodes(o);
	return r;
}

void scan_object_state(struct scan_object *o, struct record *ret)
{
	uint8_t kind = scan_kind(&o->st);

	*ret = (struct record){
		.live = true,
		.kind = kind,
		.content = o->content,
		.target = steal(o->target),
		.mode = kind == RECORD_SYMLINK ? 0777 : o->st.mode,
		.uid = o->st.uid,
		.gid = o->st.gid,
		.mtime_ns = o->st.mtime_ns,
	};
}

void scan_object_stamp(const struct scan_object *o, struct stamp *ret)
{
	stamp_of(&o->st, ret);
	ret->generation = o->generation;
	ret->exact = o->exact;
}

int scan_look(struct store *store, int dir, const char *name, struct record *ret_state,
	struct stamp *ret_stamp, struct chunk_tree_node **ret_nodes, size_t *ret_n_nodes)
{
	struct scan_object o cleanup(scan_object_deinit) = {0};
	int r = file_stat_at(dir, name, &o.st);

	if (r)
		return r;
	if (o.st.kind == FILE_KIND_OTHER)
		return FILE_UNSUPPORTED;
	if (o.st.kind != FILE_KIND_DIRECTORY)
		r = scan_object_read(
			&o, store, dir, name, chunk_bits_for_size(o.st.size));
	if (r)
		return r;
	scan_object_state(&o, ret_state);
	scan_object_stamp(&o, ret_stamp);
	*ret_n_nodes = o.n_nodes;
	*ret_nodes = steal(o.nodes);
	o.n_nodes = 0;
	return 0;
}

/* --- moved files --- */

struct candidates {
	char *v[CANDIDATES_MAX];
	size_t n;
};

static void candidates_deinit(struct candidates *c)
{
	for (size_t k = 0; k < c->n; k++)
		free(c->v[k]);
}

static int add_candidate(const char *path, void *data)
{
	struct candidates *c = data;

	if (c->n == CANDIDATES_MAX)
		return 1;
	c->v[c->n] = strdup(path);
	return c->v[c->n] ? (c->n++, 0) : -ENOMEM;
}

/* The chunk tree's nodes below and with this one, from the index. 0, or anything else: not all
 * there. */
static int load_nodes(struct scan_object *o, struct index_txn *t, enum hash_algorithm algorithm,
	const struct hash *hash, uint8_t level)
{
	cleanup_free struct chunk_tree_entry *entries = NULL;
	cleanup(buf_deinit) struct buf payload = BUF_INIT;
	uint8_t found;
	size_t n = 0;
	int r = index_node_get(t, hash, &found, &payload);

	if (r || found != level)
		return r ? r : -EBADMSG;
	if (level > 1)
		r = chunk_tree_decode(
			algorithm, hash, level, payload.data, payload.len, &entries, &n);
	for (size_t k = 0; k < n && !r; k++)
		r = load_nodes(o, t, algorithm, &entries[k].hash, level - 1);
	return r ? r : add_node(hash, level, payload.data, payload.len, o);
}

/*
 * The same inode, size and mtime alone prove nothing: a freed inode is given out again at once, and
 * mtimes are set by whoever unpacks an archive. The same ctime does. It stays when a directory above
 * is moved; where a file's own renaming changes it, that may hide an edit.
 */
static bool same_inode_content(
	const struct store *store, const struct row *row, const struct scan_object *o, int64_t window_ns)
{
	const struct stamp *s = &row->stamp;

	if (!row_live(row) || row->place != ROW_ON_DISK || row->record.kind != RECORD_FILE ||
		scan_racy(store, s, row->recorded_ns, window_ns))
		return false;
	if (s->ino != o->st.ino || s->size != o->st.size || s->mtime_ns != o->st.mtime_ns)
		return false;
	return s->ctime_ns == o->st.ctime_ns;
}

static int take_content(struct scan_object *o, const struct store *store, struct index_txn *t, const char *path,
	int64_t window_ns)
{
	struct row row cleanup(row_deinit) = {0};
	int r = index_get(t, path, &row);

	if (r || !same_inode_content(store, &row, o, window_ns))
		return r < 0 ? r : 0;
	/* observations carry their nodes, as the row that has them may be gone when this one is
	 * written */
	if (row.record.content.height &&
		load_nodes(o, t, store_algorithm(store), &row.record.content.root, row.record.content.height)) {
		drop_nodes(o);
		return 0;
	}
	o->content = row.record.content;
	if (!o->generation)
		o->generation = row.stamp.generation;
	o->exact = row.stamp.exact; /* of the same look, by its ctime */
	return 1;
}

int scan_object_recognise(
	struct scan_object *o, struct store *store, int64_t window_ns, int dir, const char *name)
{
	struct candidates c cleanup(candidates_deinit) = {0};
	struct index_txn *t cleanup(index_abort_p) = NULL;
	cleanup_close int fd = -1;
	int r;

	if (since(clock_wall_ns(), o->st.mtime_ns) < window_ns)
		return 0;
	r = index_begin_read(store_index(store), &t);
	if (!r)
		r = index_by_inode(t, o->st.ino, add_candidate, &c);
	if (r < 0 || !c.n)
		return r < 0 ? r : 0;
	r = open_same(o, dir, name, &fd);
	if (!r)
		r = file_generation(fd, &o->generation);
	if (r < 0 || fd < 0)
		return 0; /* reading will say what is wrong */
	r = 0;
	for (size_t k = 0; k < c.n && !r; k++)
		r = take_content(o, store, t, c.v[k], window_ns);
	return r;
}
