/*
 * transfer/stage_reuse.c — what of a content is here already: a whole file of it, what an earlier transfer left, and chunks of
 * the old version and of other files; see transfer/stage_internal.h. All of it is hashed before it counts. Threads
 * that help read and hash; what is written, and what the stage knows, is the caller's.
 */
#include "transfer/stage_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"

#define STAGE_SOURCES_MAX 4	       /* files of equal content that are tried */
#define STAGE_OTHERS_MAX 4096	       /* other contents, that have chunks in common, are tried */
#define STAGE_RECUT_FACTOR 16	       /* of an old version: this × the new size … */
#define STAGE_RECUT_BYTES (64u << 20)  /* … and this much is read */
#define STAGE_SHARE_BYTES (128u << 10) /* shorter runs are copied, not shared */
#define STAGE_SHARE_ALIGN 4096	       /* blocks that are shared: file systems with others copy in the kernel */
#define STAGE_SHARE_STEP (64u << 20)   /* shared at once: the base's dirty pages are written for that, while users may wait */
#define STAGE_THREADS_BYTES (16u << 20) /* less is not worth a thread */
#define STAGE_AHEAD 8		       /* chunks are read and hashed while one is written … */
#define STAGE_AHEAD_BYTES (8u << 20)   /* … of so many bytes together, but two */

DEFINE_CLEANUP(struct index_txn *, index_abort)
DEFINE_CLEANUP(struct pool *, pool_free)

struct pool *stage_pool(const struct stage *s, uint64_t bytes)
{
	struct pool *pool = NULL;

	if (s->threads && bytes >= STAGE_THREADS_BYTES)
		(void)pool_new(&pool, s->threads);
	return pool;
}

/* --- the whole of it --- */

/* 0, or what keeps the file from being used (of either sign). */
static int open_source(const struct stage *s, const char *path, int *ret_fd, struct file_stat *ret)
{
	cleanup_close int dir = -1, fd = -1;
	const char *name;
	int r;

	r = file_open_parent(store_root(s->store), path, &dir, &name);
	if (r == 0)
		r = file_open_read(dir, name, &fd);
	if (r == 0)
		r = file_stat_fd(fd, ret);
	if (r == 0)
		*ret_fd = steal_fd(fd);
	return r;
}

/* Failures that another source would not mend. */
static bool is_ours(int r)
{
	return r == -ENOSPC || r == -EDQUOT || r == -EFBIG || r == -ENOMEM || r == -EROFS;
}

static int clone_or_copy(struct stage *s, int from)
{
	int r = FILE_UNSUPPORTED;

	if (store_abilities(s->store)->reflink)
		r = file_clone(from, s->fd);
	if (r == 0 || is_ours(r))
		return r;
	r = file_truncate(s->fd, s->content.size);
	return r != 0 ? r : file_copy_range(from, 0, s->fd, 0, s->content.size);
}

/* STAGE_COMPLETE, or 0: not usable, the object is empty again. */
static int take_whole(struct stage *s, const char *path)
{
	cleanup_close int from = -1;
	struct file_stat st;
	int r;

	r = open_source(s, path, &from, &st);
	if (r != 0 || st.size != s->content.size)
		return is_ours(r) ? r : 0;
	r = clone_or_copy(s, from);
	if (r == 0)
		r = stage_verify_object(s);
	if (r == 0) {
		s->whole = true;
		return STAGE_COMPLETE;
	}
	stage_drop_nodes(s);
	if (is_ours(r))
		return r;
	r = file_truncate(s->fd, 0);
	return r > 0 ? -EIO : r;
}

struct sources {
	char *paths[STAGE_SOURCES_MAX];
	size_t n;
};

static void sources_deinit(struct sources *f)
{
	for (size_t i = 0; i < f->n; i++)
		free(f->paths[i]);
}

static int collect_source(const char *path, void *data)
{
	struct sources *f = data;
	char *copy = strdup(path);

	if (!copy)
		return -ENOMEM;
	f->paths[f->n++] = copy;
	return f->n == STAGE_SOURCES_MAX;
}

static int find_sources(const struct stage *s, struct sources *ret)
{
	cleanup(index_abort_p) struct index_txn *t = NULL;
	int r;

	r = index_begin_read(replica_index(s->replica), &t);
	if (r != 0)
		return r;
	r = index_by_content(t, &s->content, collect_source, ret);
	return r < 0 ? r : 0;
}

int stage_look_for_whole(struct stage *s)
{
	cleanup(sources_deinit) struct sources sources = {0};
	int r;

	r = find_sources(s, &sources);
	for (size_t i = 0; r == 0 && i < sources.n; i++)
		r = take_whole(s, sources.paths[i]);
	return r;
}

/* --- what an earlier transfer left --- */

/* Zeros where something is that does not count. */
static int clear_chunk(struct stage *s, const struct stage_chunk *c)
{
	static const uint8_t zeros[65536];
	uint64_t at = c->offset, end = c->offset + c->length, to;
	int r;

	while ((r = file_next_data(s->fd, at, end, &at, &to)) == 0)
		for (size_t n; r == 0 && at < to; at += n) {
			n = to - at < sizeof(zeros) ? (size_t)(to - at) : sizeof(zeros);
			r = file_write(s->fd, zeros, n, at);
			if (r < 0)
				return r;
		}
	return r == FILE_END ? 0 : r;
}

int stage_take_left(struct stage *s)
{
	cleanup_free uint8_t *buffer = malloc(CHUNK_BYTES_MAX);
	uint64_t from, to;
	int r = buffer ? 0 : -ENOMEM;

	if (r == 0)
		s->filled = false;
	for (size_t i = 0; r == 0 && i < s->n_chunks; i++) {
		struct stage_chunk *c = &s->chunks[i];

		if (c->zero || file_next_data(s->fd, c->offset, c->offset + c->length, &from, &to) != 0)
			continue;
		r = stage_read_chunk(s, s->fd, c, buffer);
		c->there = r == 0;
		if (r == STAGE_MISMATCH)
			r = 0;
	}
	for (size_t i = 0; r == 0 && i < s->n_chunks; i++)
		if (!s->chunks[i].there)
			r = clear_chunk(s, &s->chunks[i]);
	for (size_t i = 0; r == 0 && i < s->n_chunks; i++) {
		const struct stage_chunk *c = &s->chunks[i];

		if (!c->there || c->present)
			continue;
		r = stage_read_chunk(s, s->fd, c, buffer); /* once more, as it may stand at other places as well */
		if (r == 0)
			r = stage_place(s, &c->hash, buffer, c->length, STAGE_NOT_OLD);
		s->filled = true;
	}
	return r > 0 ? -EIO : r;
}

/* --- the old version, and other files --- */

/* A chunk that the index says stands in a file, and that is wanted. */
struct hit {
	struct hash hash;
	uint64_t offset;
	uint32_t length;
};

/* A file with chunks for this one. */
struct source {
	struct stage *stage;
	const char *path;
	bool base; /* it is the base, or becomes it by what is found */
	int fd;
	struct file_stat stat;
	struct stage_lease lease; /* while it is shared with */
	struct content content; /* what the index says */
	uint64_t origin;	/* the row's source */
	struct hit *hits;	/* in file order */
	size_t n, cap;
	int error; /* of the re-cut: ours, not the file's */
};

static void source_deinit(struct source *o)
{
	close_keep(o->fd);
	free(o->hits);
}

/* Collects hits below one node, as deep as the tree is. INDEX_ABSENT: nodes are not there. */
static int walk_node(struct index_txn *t, struct source *o, const struct hash *hash,
	uint8_t level, uint64_t offset)
{
	cleanup(buf_deinit) struct buf payload = BUF_INIT;
	cleanup_free struct chunk_tree_entry *entries = NULL;
	uint8_t found_level;
	size_t n;
	int r;

	r = index_node_get(t, hash, &found_level, &payload);
	if (r != 0)
		return r;
	if (found_level != level)
		return INDEX_ABSENT;
	r = chunk_tree_decode(stage_algorithm(o->stage), hash, level, payload.data, payload.len, &entries,
		&n);
	for (size_t i = 0; r == 0 && i < n; offset += entries[i++].length) {
		const struct chunk_tree_entry *e = &entries[i];

		if (e->zero)
			continue;
		if (level > 1) {
			r = walk_node(t, o, &e->hash, level - 1, offset);
			continue;
		}
		if (!stage_wanted(o->stage, &e->hash, e->length))
			continue;
		r = array_reserve(&o->hits, &o->cap, o->n + 1, sizeof(*o->hits));
		if (r == 0)
			o->hits[o->n++] = (struct hit){e->hash, offset, (uint32_t)e->length};
	}
	return r;
}

/* What the index says about the file, and its chunks where it was cut as the new one is.
 * INDEX_ABSENT: there is no such file; *ret_cut: hits are complete. */
static int look_up(struct source *o, struct index_txn *t, bool *ret_cut)
{
	cleanup(row_deinit) struct row row = {0};
	const struct stage *s = o->stage;
	int r = index_get(t, o->path, &row);

	if (r != 0)
		return r;
	if (!row_live(&row) || row.place != ROW_ON_DISK || row.record.kind != RECORD_FILE)
		return INDEX_ABSENT;
	o->content = row.record.content;
	o->origin = row.source;
	*ret_cut = false;
	if (s->n_chunks == 1)
		return 0;
	if (o->content.chunk_bits != s->content.chunk_bits || o->content.height == 0 ||
		o->content.height > CHUNK_TREE_HEIGHT_MAX)
		return 0;
	r = walk_node(t, o, &o->content.root, o->content.height, 0);
	if (r == -ENOMEM)
		return r;
	*ret_cut = r == 0; /* else the nodes are missing or damaged: the file itself can tell */
	return 0;
}

static int set_base(const struct source *o)
{
	struct stage *s = o->stage;

	free(s->base);
	s->base = strdup(o->path);
	s->base_size = o->content.size;
	s->base_source = o->origin;
	return s->base ? 0 : -ENOMEM;
}

/* A hit that is read and hashed on some thread; it changes nothing of the stage. */
struct ahead {
	struct pool_job job;
	const struct source *of;
	const struct hit *hit;
	uint8_t *bytes; /* owned */
	bool good;	/* the file still has there what the index says */
};

static void read_hit(struct pool_job *job)
{
	struct ahead *a = (struct ahead *)job;
	const struct stage_chunk c = {.hash = a->hit->hash, .offset = a->hit->offset, .length = a->hit->length};

	a->good = stage_read_chunk(a->of->stage, a->of->fd, &c, a->bytes) == 0;
}

/* Hits that are under way, in file order. */
struct aheads {
	struct ahead v[STAGE_AHEAD];
	size_t size, first, n;
};

/* One at least, and as many as there is memory for. */
static int aheads_new(struct aheads *q, const struct source *o, size_t most, size_t bytes)
{
	for (; q->size < most; q->size++) {
		struct ahead *a = &q->v[q->size];

		*a = (struct ahead){.job.run = read_hit, .of = o, .bytes = malloc(bytes)};
		if (!a->bytes)
			break;
	}
	return q->size ? 0 : -ENOMEM;
}

/* Of those that are wanted still: others came from an earlier place. Is any under way? */
static bool read_ahead(struct aheads *q, struct source *o, struct pool *pool, size_t *next)
{
	for (; q->n < q->size && *next < o->n; ++*next) {
		const struct hit *h = &o->hits[*next];
		struct ahead *a = &q->v[(q->first + q->n) % q->size];

		if (!stage_wanted(o->stage, &h->hash, h->length))
			continue;
		a->hit = h;
		q->n++;
		pool_add(pool, &a->job, true);
	}
	return q->n > 0;
}

static int copy_first(struct aheads *q, struct source *o, struct pool *pool)
{
	struct ahead *a = &q->v[q->first];
	const struct hit *h = a->hit;

	q->first = (q->first + 1) % q->size;
	q->n--;
	pool_wait(pool, &a->job);
	if (!a->good || !stage_wanted(o->stage, &h->hash, h->length))
		return 0;
	return stage_place(o->stage, &h->hash, a->bytes, h->length, o->base ? h->offset : STAGE_NOT_OLD);
}

/* This thread writes, in order; others read and hash what comes next. */
static int copy_hits(struct source *o)
{
	cleanup(pool_free_p) struct pool *pool = NULL;
	struct aheads q = {0};
	uint64_t bytes = 0;
	size_t longest = 1, most, next = 0;
	int r;

	for (size_t i = 0; i < o->n; i++) {
		bytes += o->hits[i].length;
		longest = o->hits[i].length > longest ? o->hits[i].length : longest;
	}
	pool = stage_pool(o->stage, bytes);
	most = longest < STAGE_AHEAD_BYTES / STAGE_AHEAD ? STAGE_AHEAD : STAGE_AHEAD_BYTES / longest;
	r = o->n ? aheads_new(&q, o, !pool ? 1 : most < 2 ? 2 : most, longest) : 0;
	while (r == 0 && read_ahead(&q, o, pool, &next))
		r = copy_first(&q, o, pool);
	while (q.n)
		pool_cancel(pool, &q.v[(q.first + --q.n) % q.size].job);
	while (q.size)
		free(q.v[--q.size].bytes);
	return r;
}

/* Is this chunk to be had from the source at the place where the new content has it? Both are walked in file order. */
static bool stands_still(const struct source *o, const struct stage_chunk *c, size_t *at)
{
	while (*at < o->n && o->hits[*at].offset < c->offset)
		++*at;
	return *at < o->n && o->hits[*at].offset == c->offset && hash_equal(&o->hits[*at].hash, &c->hash);
}

static int copy_bytes(int from, int to, uint64_t offset, uint64_t end)
{
	uint8_t bytes[STAGE_SHARE_ALIGN];
	size_t got = 0;
	int r = end > offset ? file_read(from, bytes, (size_t)(end - offset), offset, &got) : 0;

	return r == 0 && got ? file_write(to, bytes, got, offset) : r;
}

/* Whole blocks are shared where the file system can, what stands beside them is copied. */
static int share_run(struct source *o, uint64_t from, uint64_t to)
{
	uint64_t align = STAGE_SHARE_ALIGN, first = (from + align - 1) / align * align, last = to / align * align;
	int r = copy_bytes(o->fd, o->stage->fd, from, first);

	for (uint64_t at = first, n; r == 0 && at < last; at += n) {
		n = last - at < STAGE_SHARE_STEP ? last - at : STAGE_SHARE_STEP;
		r = file_copy_range(o->fd, at, o->stage->fd, at, n);
		(void)stage_lease_holds(&o->lease); /* whoever waits for it goes on */
	}
	return r == 0 ? copy_bytes(o->fd, o->stage->fd, last, to) : r;
}

/* Chunks first … end, all of which stand still. */
static int share_chunks(struct source *o, size_t first, size_t end)
{
	struct stage_chunk *c = o->stage->chunks;
	uint64_t from = first < end ? c[first].offset : 0, to = first < end ? c[end - 1].offset + c[end - 1].length : 0;
	int r;

	if (to - from < STAGE_SHARE_BYTES)
		return 0;
	r = share_run(o, from, to);
	for (size_t i = first; r == 0 && i < end; i++)
		c[i].there = c[i].shared = true;
	return r;
}

/* All hole again, and nothing present but zeros. */
static int unshare(struct stage *s)
{
	int r = file_truncate(s->fd, 0);

	s->based = false;
	s->left = 0;
	for (size_t i = 0; i < s->n_chunks; i++) {
		struct stage_chunk *c = &s->chunks[i];

		c->there = c->shared = false;
		c->present = c->zero;
		c->old = STAGE_NOT_OLD;
		s->left += !c->zero && !c->again;
	}
	return r == 0 ? file_truncate(s->fd, s->content.size) : r;
}

/* On file systems that share blocks: what stands where it stood in the base costs no room, and no writing. */
static int share_hits(struct source *o)
{
	struct stage *s = o->stage;
	size_t at = 0, first = 0;
	int r = 0;

	if (!store_abilities(s->store)->reflink || !o->base || !o->n)
		return 0;
	stage_lease_take(&o->lease, s, o->fd);
	for (size_t i = 0; r == 0 && i <= s->n_chunks; i++) {
		if (i < s->n_chunks && stands_still(o, &s->chunks[i], &at))
			continue;
		r = share_chunks(o, first, i);
		first = i + 1;
	}
	if (r == 0)
		r = stage_verify_shared(s, &o->lease);
	stage_lease_end(&o->lease);
	return r == 0 || is_ours(r) ? r : unshare(s);
}

enum { RECUT_ENOUGH = 1 };

static bool recut_far(const struct stage *s, uint64_t offset)
{
	return offset > STAGE_RECUT_BYTES &&
		(offset - STAGE_RECUT_BYTES) / STAGE_RECUT_FACTOR > s->content.size;
}

static int take_cut(const struct chunk *chunk, const uint8_t *bytes, void *data)
{
	struct source *o = data;
	struct stage *s = o->stage;
	const struct stage_chunk *c;

	if (s->left == 0 || recut_far(s, chunk->offset))
		return RECUT_ENOUGH;
	c = bytes ? stage_wanted(s, &chunk->hash, chunk->length) : NULL;
	if (c)
		o->error = stage_place(s, &c->hash, bytes, chunk->length, chunk->offset);
	return o->error;
}

static int copy_recut(struct source *o)
{
	const struct stage *s = o->stage;
	cleanup(pool_free_p) struct pool *pool = stage_pool(s, o->stat.size);
	const struct chunker_file file = {
		.fd = o->fd, .size = o->stat.size, .bits = s->content.chunk_bits, .algorithm = stage_algorithm(s), .pool = pool, .uncached = stage_large(s)};
	int r = chunker_run_file(&file, take_cut, o);

	if (o->error)
		return o->error;
	return r == -ENOMEM ? r : 0; /* an old version that can't be read has nothing for us */
}

static int take_hits(struct source *o)
{
	int r = share_hits(o);

	return r == 0 ? copy_hits(o) : r;
}

static int look_up_old(struct source *o, bool *ret_cut)
{
	cleanup(index_abort_p) struct index_txn *t = NULL;
	int r = index_begin_read(replica_index(o->stage->replica), &t);

	return r == 0 ? look_up(o, t, ret_cut) : r;
}

int stage_take_from_old(struct stage *s)
{
	cleanup(source_deinit) struct source o = {.stage = s, .path = s->path, .base = true, .fd = -1};
	bool cut = false;
	int r;

	r = look_up_old(&o, &cut);
	if (r == 0)
		r = set_base(&o);
	if (r != 0)
		return r < 0 ? r : 0;
	/* a lone chunk is the whole content, which stage_begin looked for */
	if ((cut && o.n == 0) || s->n_chunks == 1)
		return 0;
	if (open_source(s, s->path, &o.fd, &o.stat) != 0)
		return 0;
	return cut ? take_hits(&o) : copy_recut(&o);
}

/* A content that may have so many missing chunks, by its root's name. */
struct vote {
	uint64_t root;
	size_t n;
};

static int compare_roots(const void *a, const void *b)
{
	const struct vote *x = a, *y = b;

	return (x->root > y->root) - (x->root < y->root);
}

static int compare_votes(const void *a, const void *b)
{
	const struct vote *x = a, *y = b;

	return x->n != y->n ? (x->n < y->n) - (x->n > y->n) : compare_roots(a, b);
}

/* The most promising contents first; votes has room for one for each missing chunk. */
static size_t find_others(const struct stage *s, const struct reuse *reuse, struct vote *votes)
{
	size_t n = 0, found = 0;

	for (size_t i = 0; i < s->n_chunks; i++) {
		const struct stage_chunk *c = &s->chunks[i];

		if (!c->present && !c->again && reuse_look(reuse, &c->hash, &votes[found].root))
			votes[found++].n = 1;
	}
	qsort(votes, found, sizeof(*votes), compare_roots);
	for (size_t i = 0; i < found; i++) {
		if (n && votes[n - 1].root == votes[i].root)
			votes[n - 1].n++;
		else
			votes[n++] = votes[i];
	}
	qsort(votes, n, sizeof(*votes), compare_votes);
	return n;
}

/* Files of that content, and the hits of the first one. */
static int look_up_other(struct source *o, uint64_t root, struct sources *ret)
{
	cleanup(index_abort_p) struct index_txn *t = NULL;
	bool cut;
	int r = index_begin_read(replica_index(o->stage->replica), &t);

	if (r == 0)
		r = index_by_root(t, root, collect_source, ret);
	if (r < 0 || !ret->n)
		return r < 0 ? r : INDEX_ABSENT;
	o->path = ret->paths[0];
	return look_up(o, t, &cut);
}

/* Nothing is taken of a file that can't be read, or has changed; then others of its content are tried. */
static int take_from_other(struct stage *s, uint64_t root)
{
	cleanup(sources_deinit) struct sources paths = {0};
	cleanup(source_deinit) struct source o = {.stage = s, .base = !s->based, .fd = -1};
	size_t left = s->left;
	int r = look_up_other(&o, root, &paths);

	for (size_t i = 0; r == 0 && o.n && i < paths.n && s->left == left; i++) {
		o.path = paths.paths[i];
		o.fd = close_keep(o.fd);
		if (open_source(s, o.path, &o.fd, &o.stat) == 0)
			r = take_hits(&o);
	}
	if (r == 0 && o.base && s->based)
		r = set_base(&o);
	return r < 0 ? r : 0;
}

int stage_take_from_others(struct stage *s, struct reuse *reuse)
{
	cleanup_free struct vote *votes = NULL;
	size_t n;
	int r = 0;

	if (s->n_chunks == 1 || reuse_prepare(reuse, s->replica, stage_missing_bytes(s)) != 0)
		return 0;
	votes = calloc(s->left, sizeof(*votes));
	if (!votes)
		return -ENOMEM;
	n = find_others(s, reuse, votes);
	for (size_t i = 0; r == 0 && s->left && i < n && i < STAGE_OTHERS_MAX; i++)
		r = take_from_other(s, votes[i].root);
	return r;
}

int stage_open_base(const struct stage *s, int *ret_fd)
{
	struct file_stat st;

	return s->base ? open_source(s, s->base, ret_fd, &st) : -ENOENT;
}

uint64_t stage_base_source(const struct stage *s)
{
	return s->base_source;
}
