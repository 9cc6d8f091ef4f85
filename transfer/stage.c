/*
 * transfer/stage.c — see transfer/stage.h.
 *
 * Invariants: nothing is written to the object but bytes that hash to the chunk they are written for
 * (or a whole copy, which is hashed as it lies there before it counts). The object is all hole before
 * the first chunk is written, of full length if there are several; so zeros need not be written. What it
 * shares with the base is verified as it lies there before it counts; if it is not what it should be, the object is
 * all hole again.
 * `order` holds the chunks by hash, equal ones by number: chunks of one hash are one group, become
 * present together, and the group's first stands in `missing`. left = groups not present.
 */
#include "transfer/stage.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/defect.h"
#include "base/error.h"
#include "base/random.h"
#include "transfer/partial.h"
#include "transfer/place.h"

#define STAGE_SOURCES_MAX 4	       /* files of equal content that are tried */
#define STAGE_OTHERS_MAX 4096	       /* other contents, that have chunks in common, are tried */
#define STAGE_HOLE_BYTES 4096	       /* zeros are left out in aligned units of this */
#define STAGE_RECUT_FACTOR 16	       /* of an old version: this × the new size … */
#define STAGE_RECUT_BYTES (64u << 20)  /* … and this much is read */
#define STAGE_NOT_OLD UINT64_MAX       /* not found in the base */
#define STAGE_SHARE_BYTES (128u << 10) /* shorter runs are copied, not shared */
#define STAGE_SHARE_ALIGN 4096	       /* blocks that are shared: file systems with others copy in the kernel */
#define STAGE_OLD_FACTOR 4	       /* a missing chunk is looked for in this × its size … */
#define STAGE_OLD_BYTES (64u << 10)    /* … and this much of old bytes at most */

struct stage_chunk {
	struct hash hash;
	uint64_t offset;
	uint64_t old; /* offset in the base, or STAGE_NOT_OLD */
	uint32_t length;
	bool zero;
	bool present;
	bool again; /* not the first of its group */
	bool there; /* its bytes are, shared with the base: not to be written */
};

struct stage {
	struct replica *replica; /* not owned */
	struct store *store;	 /* the replica's */
	char *path;
	struct content content;
	uint16_t mode; /* to be made with */
	char name[PARTIAL_NAME_BYTES];
	bool partial; /* `name` is the content's: the object is locked, and what is in it outlives the stage */
	bool filled;  /* something is in it that did not come from here */
	uint64_t left_bytes; /* an earlier transfer left so much of it */
	int fd;	      /* the object; -1 after stage_finish */
	bool linked;  /* the object is in staging under `name` */
	bool whole;   /* complete by a local copy */
	bool is_ready;
	struct place_ready ready; /* if it is */
	struct chunk_tree_node *nodes;
	size_t n_nodes, cap_nodes;
	struct stage_chunk *chunks; /* in file order; NULL before stage_chunks */
	uint32_t *order;	    /* numbers of chunks by (hash, number) */
	size_t n_chunks;
	size_t left;
	struct stage_missing *missing;
	size_t n_missing;
	/* The base, of which what is missing may be another version: the old version, or what has chunks in common with the new one. */
	char *base;	     /* its path; owned; NULL: there is none */
	bool based;	     /* chunks were found in it */
	uint64_t base_size;  /* as the index says */
	uint64_t base_source; /* of its row */
};

DEFINE_CLEANUP(struct stage *, stage_free)
DEFINE_CLEANUP(struct index_txn *, index_abort)
DEFINE_CLEANUP(struct hash_state *, hash_state_free)
DEFINE_CLEANUP(struct chunk_tree_builder *, chunk_tree_builder_free)

static enum hash_algorithm algorithm(const struct stage *s)
{
	return store_algorithm(s->store);
}

/* --- the object --- */

static void random_name(char ret[PARTIAL_NAME_BYTES])
{
	snprintf(ret, PARTIAL_NAME_BYTES, "%016llx", (unsigned long long)random_id());
}

/* Is it worth a name by which it is found again, and has it chunks to go on from? */
static bool may_resume(const struct stage *s)
{
	return s->content.size >= PARTIAL_BYTES_MIN && s->content.height;
}

static int create_object(struct stage *s)
{
	int r = PARTIAL_NONE;

	if (may_resume(s)) {
		partial_name(s->name, &s->content.root);
		r = partial_open(s->store, s->name, &s->fd, &s->left_bytes);
	}
	if (r != PARTIAL_NONE) {
		s->linked = s->partial = r == 0;
		s->filled = s->left_bytes > 0;
		return r;
	}
	do {
		random_name(s->name);
		r = file_create(store_staging(s->store), s->name, (s->mode & 0777) | 0600, &s->fd);
	} while (r == FILE_EXISTS);
	if (r > 0)
		return -EACCES; /* our own directory is not ours any more */
	if (r == 0)
		s->linked = true;
	return r;
}

static bool all_zero(const uint8_t *p, size_t n)
{
	return n == 0 || (p[0] == 0 && memcmp(p, p + 1, n - 1) == 0);
}

/* Bytes up to the next multiple of STAGE_HOLE_BYTES of the file, at most n. */
static size_t unit_at(uint64_t offset, size_t n)
{
	size_t unit = STAGE_HOLE_BYTES - offset % STAGE_HOLE_BYTES;

	return unit < n ? unit : n;
}

/* Write but for zeros, into what is a hole. */
static int write_sparse(int fd, const uint8_t *p, size_t n, uint64_t offset)
{
	size_t from = 0, at = 0;
	int r;

	while (at < n) {
		size_t unit = unit_at(offset + at, n - at);

		if (all_zero(p + at, unit)) {
			r = at > from ? file_write(fd, p + from, at - from, offset + from) : 0;
			if (r < 0)
				return r;
			from = at + unit;
		}
		at += unit;
	}
	return n > from ? file_write(fd, p + from, n - from, offset + from) : 0;
}

static int keep_node(const struct hash *hash, uint8_t level, const void *payload, size_t n,
	void *data)
{
	struct stage *s = data;
	struct chunk_tree_node *node;
	int r;

	r = array_reserve(&s->nodes, &s->cap_nodes, s->n_nodes + 1, sizeof(*s->nodes));
	if (r < 0)
		return r;
	node = &s->nodes[s->n_nodes];
	*node = (struct chunk_tree_node){.hash = *hash, .level = level, .n = (uint32_t)n};
	node->payload = malloc(n ? n : 1);
	if (!node->payload)
		return -ENOMEM;
	memcpy(node->payload, payload, n);
	s->n_nodes++;
	return 0;
}

static void drop_nodes(struct stage *s)
{
	scan_nodes_free(s->nodes, s->n_nodes);
	s->nodes = NULL;
	s->n_nodes = s->cap_nodes = 0;
}

/* --- local sources --- */

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

/* Does the object, as it lies there, hold the content? STAGE_MISMATCH. Keeps its nodes. */
static int verify_object(struct stage *s)
{
	struct file_stat st;
	struct content found;
	int r;

	r = file_stat_fd(s->fd, &st);
	if (r != 0)
		return r;
	if (st.size != s->content.size)
		return STAGE_MISMATCH;
	r = chunk_tree_of_file(s->fd, st.size, s->content.chunk_bits, algorithm(s), keep_node, s,
		&found);
	if (r != 0)
		return r < 0 ? r : STAGE_MISMATCH;
	found.chunk_bits = s->content.chunk_bits;
	return content_equal(&found, &s->content) ? 0 : STAGE_MISMATCH;
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
		r = verify_object(s);
	if (r == 0) {
		s->whole = true;
		return STAGE_COMPLETE;
	}
	drop_nodes(s);
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

static int look_for_whole(struct stage *s)
{
	cleanup(sources_deinit) struct sources sources = {0};
	int r;

	r = find_sources(s, &sources);
	for (size_t i = 0; r == 0 && i < sources.n; i++)
		r = take_whole(s, sources.paths[i]);
	return r;
}

static int take_empty(struct stage *s)
{
	struct hash h;

	hash_bytes(algorithm(s), "", 0, &h);
	if (!hash_equal(&h, &s->content.root))
		return -EBADMSG;
	s->whole = true;
	return STAGE_COMPLETE;
}

static bool content_possible(const struct content *c)
{
	return c->chunk_bits >= chunk_bits_for_size(c->size) && c->chunk_bits <= CHUNK_BITS_MAX &&
		c->height <= CHUNK_TREE_HEIGHT_MAX && (c->size > 0 || c->height == 0) &&
		c->size <= INT64_MAX;
}

int stage_begin(struct stage **ret, struct replica *r, const char *path,
	const struct content *content, uint16_t mode)
{
	cleanup(stage_free_p) struct stage *s = NULL;
	int e;

	if (!path_valid(path))
		return -EINVAL;
	if (!content_possible(content))
		return -EBADMSG;
	s = calloc(1, sizeof(*s));
	if (!s)
		return -ENOMEM;
	s->fd = -1;
	s->replica = r;
	s->store = replica_store(r);
	s->content = *content;
	s->mode = mode;
	s->path = strdup(path);
	if (!s->path)
		return -ENOMEM;
	e = create_object(s);
	if (e == 0)
		e = content->size == 0 ? take_empty(s) : look_for_whole(s);
	if (e >= 0)
		*ret = steal(s);
	return e;
}

/* For the next one who wants the content. */
static bool leave_partial(const struct stage *s)
{
	char name[PARTIAL_NAME_BYTES];

	if (!s->filled || s->whole)
		return false;
	if (s->partial)
		return true;
	if (s->fd >= 0 || !may_resume(s))
		return false;
	partial_name(name, &s->content.root);
	return file_rename_noreplace(store_staging(s->store), s->name, store_staging(s->store), name) == 0;
}

void stage_unwanted(struct stage *s)
{
	s->filled = false;
}

void stage_free(struct stage *s)
{
	if (!s)
		return;
	if (s->linked && !leave_partial(s))
		(void)file_unlink(store_staging(s->store), s->name); /* recovery empties staging */
	close_keep(s->fd);
	drop_nodes(s);
	free(s->chunks);
	free(s->order);
	free(s->missing);
	free(s->base);
	free(s->path);
	free(s);
}

/* --- the list of chunks --- */

/* Only what the chunker makes: bounds the number of chunks, and what zeros cost to check. */
static bool length_possible(const struct stage *s, const struct chunk_tree_entry *e, bool last)
{
	uint64_t average = UINT64_C(1) << s->content.chunk_bits, max = average * 4;

	if (e->length == 0 || e->length > max)
		return false;
	return last || (e->length >= average / 4 && (!e->zero || e->length == max));
}

static int copy_entries(struct stage *s, const struct chunk_tree_entry *entries, size_t n)
{
	uint64_t offset = 0;

	if (n == 0 || n > UINT32_MAX)
		return -EBADMSG;
	s->chunks = calloc(n, sizeof(*s->chunks));
	s->order = calloc(n, sizeof(*s->order));
	if (!s->chunks || !s->order)
		return -ENOMEM;
	s->n_chunks = n;
	for (size_t i = 0; i < n; i++) {
		const struct chunk_tree_entry *e = &entries[i];

		if (!length_possible(s, e, i == n - 1) || e->length > s->content.size - offset)
			return -EBADMSG;
		s->chunks[i] = (struct stage_chunk){.hash = e->hash,
			.offset = offset,
			.old = STAGE_NOT_OLD,
			.length = (uint32_t)e->length,
			.zero = e->zero};
		s->order[i] = (uint32_t)i;
		offset += e->length;
	}
	return offset == s->content.size ? 0 : -EBADMSG;
}

static int check_root(struct stage *s)
{
	cleanup(chunk_tree_builder_free_p) struct chunk_tree_builder *b = NULL;
	struct content found;
	int r;

	r = chunk_tree_builder_new(&b, algorithm(s), keep_node, s);
	for (size_t i = 0; r == 0 && i < s->n_chunks; i++) {
		const struct stage_chunk *c = &s->chunks[i];

		r = chunk_tree_builder_add(b, &(struct chunk){.hash = c->hash,
						      .offset = c->offset,
						      .length = c->length,
						      .zero = c->zero});
	}
	if (r == 0)
		r = chunk_tree_builder_finish(b, &found);
	if (r != 0)
		return r;
	found.chunk_bits = s->content.chunk_bits;
	return content_equal(&found, &s->content) ? 0 : -EBADMSG;
}

static int hash_of_zeros(enum hash_algorithm a, uint32_t n, struct hash *ret)
{
	static const uint8_t zeros[65536];
	cleanup(hash_state_free_p) struct hash_state *h = NULL;
	int r;

	r = hash_state_new(&h, a);
	if (r < 0)
		return r;
	for (uint32_t piece; n > 0; n -= piece) {
		piece = n < sizeof(zeros) ? n : (uint32_t)sizeof(zeros);
		hash_state_update(h, zeros, piece);
	}
	hash_state_finish(h, ret);
	return 0;
}

/* Zero chunks are there already, as holes. They have two lengths at most: see length_possible. */
static int take_zeros(struct stage *s)
{
	uint32_t length = 0;
	struct hash h;
	int r;

	for (size_t i = 0; i < s->n_chunks; i++) {
		struct stage_chunk *c = &s->chunks[i];

		if (!c->zero)
			continue;
		if (c->length != length) {
			length = c->length;
			r = hash_of_zeros(algorithm(s), length, &h);
			if (r < 0)
				return r;
		}
		if (!hash_equal(&h, &c->hash))
			return -EBADMSG;
		c->present = true;
	}
	return 0;
}

static int compare_chunks(const void *a, const void *b, void *data)
{
	const struct stage_chunk *chunks = data;
	uint32_t i = *(const uint32_t *)a, j = *(const uint32_t *)b;
	int c = hash_compare(&chunks[i].hash, &chunks[j].hash);

	return c ? c : (i > j) - (i < j);
}

/* Chunks of one hash must be of one kind, else the list is a lie. */
static int group_chunks(struct stage *s)
{
	qsort_r(s->order, s->n_chunks, sizeof(*s->order), compare_chunks, s->chunks);
	for (size_t i = 0; i < s->n_chunks; i++) {
		struct stage_chunk *c = &s->chunks[s->order[i]];
		const struct stage_chunk *before = i ? &s->chunks[s->order[i - 1]] : NULL;

		if (!before || !hash_equal(&before->hash, &c->hash)) {
			s->left += !c->present;
			continue;
		}
		if (before->length != c->length || before->zero != c->zero)
			return -EBADMSG;
		c->again = true;
	}
	return 0;
}

/* Where the group of this hash begins in `order`; n_chunks if there is none. */
static size_t find_group(const struct stage *s, const struct hash *hash)
{
	size_t low = 0, high = s->n_chunks;

	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (hash_compare(&s->chunks[s->order[middle]].hash, hash) < 0)
			low = middle + 1;
		else
			high = middle;
	}
	if (low < s->n_chunks && hash_equal(&s->chunks[s->order[low]].hash, hash))
		return low;
	return s->n_chunks;
}

/* The first of the group if it is to be had and of this length, else NULL. */
static const struct stage_chunk *wanted(const struct stage *s, const struct hash *hash,
	uint64_t length)
{
	size_t i = find_group(s, hash);
	const struct stage_chunk *c = i < s->n_chunks ? &s->chunks[s->order[i]] : NULL;

	return c && !c->present && c->length == length ? c : NULL;
}

/* Bytes that hash to this chunk, from that place of the base or from elsewhere, go to every place of its group. */
static int place(struct stage *s, const struct hash *hash, const uint8_t *bytes, size_t n, uint64_t old)
{
	size_t first = find_group(s, hash), end;
	int r;

	/* A tree marks its chunks of zeros; what is one chunk as a whole has none. */
	if (s->content.height > 0 && all_zero(bytes, n))
		return -EBADMSG;
	for (end = first; end < s->n_chunks; end++) {
		const struct stage_chunk *c = &s->chunks[s->order[end]];

		if (!hash_equal(&c->hash, hash))
			break;
		assert(c->length == n && !c->zero);
		r = c->there ? 0 : write_sparse(s->fd, bytes, n, c->offset);
		if (r != 0)
			return r > 0 ? -EIO : r;
	}
	assert(end > first);
	for (size_t i = first; i < end; i++) {
		s->chunks[s->order[i]].present = true;
		s->chunks[s->order[i]].old = old;
	}
	s->based = s->based || old != STAGE_NOT_OLD;
	s->left--;
	return 0;
}

/* --- what an earlier transfer left --- */

/* 0, STAGE_MISMATCH, or < 0. */
static int read_chunk(const struct stage *s, const struct stage_chunk *c, uint8_t *buffer)
{
	struct hash hash;
	size_t got = 0;
	int r = file_read(s->fd, buffer, c->length, c->offset, &got);

	if (r != 0)
		return r;
	hash_bytes(algorithm(s), buffer, got, &hash);
	return got == c->length && hash_equal(&hash, &c->hash) ? 0 : STAGE_MISMATCH;
}

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

static int take_left(struct stage *s)
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
		r = read_chunk(s, c, buffer);
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
		r = read_chunk(s, c, buffer); /* once more, as it may stand at other places as well */
		if (r == 0)
			r = place(s, &c->hash, buffer, c->length, STAGE_NOT_OLD);
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
	r = chunk_tree_decode(algorithm(o->stage), hash, level, payload.data, payload.len, &entries,
		&n);
	for (size_t i = 0; r == 0 && i < n; offset += entries[i++].length) {
		const struct chunk_tree_entry *e = &entries[i];

		if (e->zero)
			continue;
		if (level > 1) {
			r = walk_node(t, o, &e->hash, level - 1, offset);
			continue;
		}
		if (!wanted(o->stage, &e->hash, e->length))
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

static int copy_hits(struct source *o)
{
	struct stage *s = o->stage;
	cleanup_free uint8_t *buffer = o->n ? malloc(CHUNK_BYTES_MAX) : NULL;
	int r = 0;

	if (o->n && !buffer)
		return -ENOMEM;
	for (size_t i = 0; r == 0 && i < o->n; i++) {
		const struct hit *h = &o->hits[i];
		struct hash hash;
		size_t got = 0;

		if (!wanted(s, &h->hash, h->length))
			continue; /* came from an earlier place */
		if (file_read(o->fd, buffer, h->length, h->offset, &got) != 0 || got != h->length)
			continue;
		hash_bytes(algorithm(s), buffer, got, &hash);
		if (hash_equal(&hash, &h->hash))
			r = place(s, &hash, buffer, got, o->base ? h->offset : STAGE_NOT_OLD);
	}
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

	if (r == 0)
		r = file_copy_range(o->fd, first, o->stage->fd, first, last - first);
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
		c[i].there = true;
	return r;
}

/* 0; STAGE_MISMATCH: it is not what the index says. */
static int verify_shared(struct stage *s)
{
	cleanup_free uint8_t *buffer = malloc(CHUNK_BYTES_MAX);
	int r = buffer ? 0 : -ENOMEM;

	for (size_t i = 0; r == 0 && i < s->n_chunks; i++) {
		const struct stage_chunk *c = &s->chunks[i];

		if (!c->there)
			continue;
		r = read_chunk(s, c, buffer);
		if (r == 0 && !c->present)
			r = place(s, &c->hash, buffer, c->length, c->offset);
	}
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

		c->there = false;
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

	if (!store_abilities(s->store)->reflink || !o->base)
		return 0;
	for (size_t i = 0; r == 0 && i <= s->n_chunks; i++) {
		if (i < s->n_chunks && stands_still(o, &s->chunks[i], &at))
			continue;
		r = share_chunks(o, first, i);
		first = i + 1;
	}
	if (r == 0)
		r = verify_shared(s);
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
	c = bytes ? wanted(s, &chunk->hash, chunk->length) : NULL;
	if (c)
		o->error = place(s, &c->hash, bytes, chunk->length, chunk->offset);
	return o->error;
}

static int copy_recut(struct source *o)
{
	struct stage *s = o->stage;
	int r;

	r = chunker_run(o->fd, o->stat.size, s->content.chunk_bits, algorithm(s), take_cut, o);
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

static int take_from_old(struct stage *s)
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

static int take_from_others(struct stage *s, struct reuse *reuse)
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

/* What stands between two chunks that both versions have, or an end: in the new one and in the old one. */
struct gap {
	uint64_t from, to;
	uint64_t old_from, old_to;
};

/* The gap from chunk i on. */
static struct gap gap_from(const struct stage *s, size_t i)
{
	const struct stage_chunk *before = i ? &s->chunks[i - 1] : NULL;
	struct gap g = {.from = s->chunks[i].offset, .to = s->content.size, .old_to = s->base_size};

	if (before)
		g.old_from = before->old + before->length;
	for (; i < s->n_chunks; i++)
		if (s->chunks[i].old != STAGE_NOT_OLD) {
			g.to = s->chunks[i].offset;
			g.old_to = s->chunks[i].old;
			break;
		}
	if (g.old_to < g.old_from) /* they changed places */
		g.old_to = s->base_size;
	if (g.old_to < g.old_from)
		g.old_from = g.old_to; /* it is not as the index said */
	return g;
}

/* The proportional part of a gap, and as much more as what went or came in it may have moved it. */
static void find_window(const struct gap *g, struct stage_missing *m)
{
	uint64_t length = g->to - g->from, old = g->old_to - g->old_from;
	uint64_t moved = old > length ? old - length : length - old, most = STAGE_OLD_FACTOR * (uint64_t)m->length + STAGE_OLD_BYTES;
	uint64_t slack = m->length / 4 + (moved < m->length ? moved : m->length), from, to;

	from = (uint64_t)((double)(m->offset - g->from) / (double)length * (double)old);
	to = (uint64_t)((double)(m->offset - g->from + m->length) / (double)length * (double)old);
	from = from < slack ? 0 : from - slack;
	to = to > old || old - to < slack ? old : to + slack;
	if (from > to)
		from = to;
	if (to - from > most)
		to = from + most;
	m->old_from = g->old_from + from;
	m->old_to = g->old_from + to;
}

static int list_missing(struct stage *s)
{
	struct gap gap = {0};
	size_t n = 0;

	s->missing = calloc(s->left ? s->left : 1, sizeof(*s->missing));
	if (!s->missing)
		return -ENOMEM;
	for (size_t i = 0; i < s->n_chunks; i++) {
		const struct stage_chunk *c = &s->chunks[i];

		if (c->old != STAGE_NOT_OLD)
			continue;
		if (!i || c[-1].old != STAGE_NOT_OLD)
			gap = gap_from(s, i);
		if (c->present || c->again)
			continue;
		s->missing[n] = (struct stage_missing){.offset = c->offset, .length = c->length, .chunk = (uint32_t)i};
		find_window(&gap, &s->missing[n++]);
	}
	assert(n == s->left);
	s->n_missing = n;
	return 0;
}

int stage_chunks(struct stage *s, const struct chunk_tree_entry *entries, size_t n, struct reuse *reuse)
{
	int r;

	if (s->whole || s->chunks || s->fd < 0)
		return -EINVAL;
	r = copy_entries(s, entries, n);
	if (r == 0)
		r = check_root(s);
	if (r == 0)
		r = take_zeros(s);
	if (r == 0)
		r = group_chunks(s);
	if (r == 0 && s->n_chunks > 1) /* a lone one gives it its length */
		r = file_truncate(s->fd, s->content.size);
	if (r == 0 && s->left_bytes)
		r = take_left(s);
	if (r == 0 && s->left > 0)
		r = take_from_old(s);
	if (r == 0 && s->left > 0 && reuse)
		r = take_from_others(s, reuse);
	if (r == 0)
		r = list_missing(s);
	if (r != 0)
		return r > 0 ? -EIO : r;
	return s->left ? 0 : STAGE_COMPLETE;
}

/* --- what a peer sends --- */

const struct stage_missing *stage_missing(const struct stage *s, size_t *ret_n)
{
	if (ret_n)
		*ret_n = s->n_missing;
	return s->missing;
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

uint64_t stage_missing_bytes(const struct stage *s)
{
	uint64_t bytes = 0;

	for (size_t i = 0; i < s->n_chunks; i++)
		bytes += s->chunks[i].present ? 0 : s->chunks[i].length;
	return bytes;
}

int stage_write(struct stage *s, uint32_t chunk, const void *bytes, size_t n)
{
	const struct stage_chunk *c;
	struct hash hash;
	int r;

	if (!s->missing || chunk >= s->n_chunks || s->chunks[chunk].present)
		return -EINVAL;
	c = &s->chunks[chunk];
	if (n != c->length)
		return STAGE_MISMATCH;
	hash_bytes(algorithm(s), bytes, n, &hash);
	if (!hash_equal(&hash, &c->hash) && !DEFECT(CONTENT_UNVERIFIED))
		return STAGE_MISMATCH;
	s->filled = true;
	r = place(s, DEFECT(CONTENT_UNVERIFIED) ? &c->hash : &hash, bytes, n, STAGE_NOT_OLD);
	if (r == -ENOSPC || r == -EDQUOT)
		s->filled = false; /* leave the room to others, unless this one goes on */
	if (r < 0)
		return r;
	return s->left ? 0 : STAGE_COMPLETE;
}

/* What cannot be opened again, in case that it is to be something else, is left for later. */
static int make_ready(struct stage *s, const struct file_stat *st, const struct record *as, bool preserve_owner)
{
	int r = as && as->mode & 0400 ? place_make_ready(s->fd, st, as, preserve_owner, false, &s->ready) : FILE_UNSUPPORTED;

	s->is_ready = r == 0;
	return r < 0 ? r : 0;
}

int stage_finish(struct stage *s, const struct record *as, bool preserve_owner)
{
	char name[PARTIAL_NAME_BYTES];
	int staging = store_staging(s->store);
	struct file_stat st;
	int r;

	if (s->fd < 0 || !(s->whole || (s->missing && s->left == 0)))
		return -EINVAL;
	r = file_stat_fd(s->fd, &st);
	if (r == 0 && st.size != s->content.size)
		r = file_truncate(s->fd, s->content.size);
	if (r != 0)
		return r > 0 ? -EIO : r;
	if (st.nlink == 0)
		return -ESTALE;
	if (s->partial) {
		random_name(name);
		r = file_rename_noreplace(staging, s->name, staging, name);
		if (r != 0)
			return r > 0 ? -ESTALE : r;
		memcpy(s->name, name, sizeof(name));
		s->partial = false;
	}
	r = make_ready(s, &st, as, preserve_owner);
	if (r == 0)
		s->fd = close_keep(s->fd);
	return r;
}

const char *stage_name(const struct stage *s)
{
	return s->name;
}

const struct place_ready *stage_ready(const struct stage *s)
{
	return s->is_ready ? &s->ready : NULL;
}

const struct chunk_tree_node *stage_nodes(const struct stage *s, size_t *ret_n)
{
	*ret_n = s->n_nodes;
	return s->nodes;
}

void stage_taken(struct stage *s)
{
	s->linked = false;
}
