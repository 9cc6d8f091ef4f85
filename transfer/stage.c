/*
 * transfer/stage.c — the object in staging, the list of its chunks, and what a peer sends; see transfer/stage.h.
 *
 * Invariants: nothing is written to the object but bytes that hash to the chunk they are written for
 * (or a whole copy, which is hashed as it lies there before it counts). The object is all hole before
 * the first chunk is written, of full length if there are several; so zeros need not be written. What it
 * shares with the base is verified as it lies there before it counts; if it is not what it should be, the object is
 * all hole again.
 * `order` holds the chunks by hash, equal ones by number: chunks of one hash are one group, become
 * present together, and the group's first stands in `missing`. left = groups not present.
 */
#include "transfer/stage_internal.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/defect.h"
#include "base/error.h"
#include "base/random.h"

#define STAGE_HOLE_BYTES 4096	    /* zeros are left out in aligned units of this */
#define STAGE_OLD_FACTOR 4	    /* a missing chunk is looked for in this × its size … */
#define STAGE_OLD_BYTES (64u << 10) /* … and this much of old bytes at most */

DEFINE_CLEANUP(struct stage *, stage_free)
DEFINE_CLEANUP(struct hash_state *, hash_state_free)
DEFINE_CLEANUP(struct chunk_tree_builder *, chunk_tree_builder_free)
DEFINE_CLEANUP(struct pool *, pool_free)

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
static int write_sparse(const struct stage *s, const uint8_t *p, size_t n, uint64_t offset)
{
	size_t from = 0, at = 0;
	int r;

	while (at < n) {
		size_t unit = unit_at(offset + at, n - at);

		if (all_zero(p + at, unit)) {
			r = at > from ? file_write_as(s->fd, p + from, at - from, offset + from, s->uncached) : 0;
			if (r < 0)
				return r;
			from = at + unit;
		}
		at += unit;
	}
	return n > from ? file_write_as(s->fd, p + from, n - from, offset + from, s->uncached) : 0;
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

void stage_drop_nodes(struct stage *s)
{
	scan_nodes_free(s->nodes, s->n_nodes);
	s->nodes = NULL;
	s->n_nodes = s->cap_nodes = 0;
}

int stage_verify_object(struct stage *s)
{
	cleanup(pool_free_p) struct pool *pool = NULL;
	struct chunker_file file = {
		.fd = s->fd, .size = s->content.size, .bits = s->content.chunk_bits, .algorithm = stage_algorithm(s), .uncached = stage_large(s)};
	struct file_stat st;
	struct content found;
	int r;

	r = file_stat_fd(s->fd, &st);
	if (r != 0)
		return r;
	if (st.size != s->content.size)
		return STAGE_MISMATCH;
	file.pool = pool = stage_pool(s, st.size);
	r = chunk_tree_of(&file, keep_node, s, &found);
	if (r != 0)
		return r < 0 ? r : STAGE_MISMATCH;
	found.chunk_bits = s->content.chunk_bits;
	return content_equal(&found, &s->content) ? 0 : STAGE_MISMATCH;
}

static int take_empty(struct stage *s)
{
	struct hash h;

	hash_bytes(stage_algorithm(s), "", 0, &h);
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
	const struct content *content, uint16_t mode, unsigned threads, bool bulk)
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
	s->threads = threads;
	s->uncached = bulk || stage_large(s);
	s->path = strdup(path);
	if (!s->path)
		return -ENOMEM;
	e = create_object(s);
	if (e == 0)
		e = content->size == 0 ? take_empty(s) : stage_look_for_whole(s);
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
	stage_drop_nodes(s);
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

	r = chunk_tree_builder_new(&b, stage_algorithm(s), keep_node, s);
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
			r = hash_of_zeros(stage_algorithm(s), length, &h);
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

const struct stage_chunk *stage_wanted(const struct stage *s, const struct hash *hash,
	uint64_t length)
{
	size_t i = find_group(s, hash);
	const struct stage_chunk *c = i < s->n_chunks ? &s->chunks[s->order[i]] : NULL;

	return c && !c->present && c->length == length ? c : NULL;
}

/* The places of the group that begins at `first` in `order` end before that. */
static size_t group_end(const struct stage *s, size_t first, const struct hash *hash)
{
	size_t end = first;

	while (end < s->n_chunks && hash_equal(&s->chunks[s->order[end]].hash, hash))
		end++;
	return end;
}

bool stage_all_there(const struct stage *s, const struct hash *hash)
{
	size_t first = find_group(s, hash), end = group_end(s, first, hash);

	for (size_t i = first; i < end; i++)
		if (!s->chunks[s->order[i]].there)
			return false;
	return end > first;
}

/* What is one chunk as a whole has no marks. */
bool stage_unmarked_zeros(const struct stage *s, const uint8_t *bytes, size_t n)
{
	return s->content.height > 0 && all_zero(bytes, n);
}

int stage_place(struct stage *s, const struct hash *hash, const uint8_t *bytes, size_t n, uint64_t old)
{
	size_t first = find_group(s, hash), end = group_end(s, first, hash);
	int r;

	if (bytes && stage_unmarked_zeros(s, bytes, n))
		return -EBADMSG;
	for (size_t i = first; i < end; i++) {
		const struct stage_chunk *c = &s->chunks[s->order[i]];

		assert(c->length == n && !c->zero && (bytes || c->there));
		r = c->there ? 0 : write_sparse(s, bytes, n, c->offset);
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
		r = stage_take_left(s);
	if (r == 0 && s->left > 0)
		r = stage_take_from_old(s);
	if (r == 0 && s->left > 0 && reuse)
		r = stage_take_from_others(s, reuse);
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
	hash_bytes(stage_algorithm(s), bytes, n, &hash);
	if (!hash_equal(&hash, &c->hash) && !DEFECT(CONTENT_UNVERIFIED))
		return STAGE_MISMATCH;
	s->filled = true;
	r = stage_place(s, DEFECT(CONTENT_UNVERIFIED) ? &c->hash : &hash, bytes, n, STAGE_NOT_OLD);
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
