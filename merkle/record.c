/*
 * merkle/record.c — see merkle/record.h.
 *
 * Encoded, a record is: version byte, flags, then vv, dots, [lost], and if live kind, mode, uid,
 * gid, mtime, [adots], [mdots], and what the kind has (content; target). A set that equals dots is
 * only flagged. There is one encoding of a record: a flag that could have been set must be, so that
 * equal records are equal bytes, and the hash is over them.
 */
#include "merkle/record.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/defect.h"
#include "base/error.h"

#define RECORD_VERSION 1
#define ROW_VERSION 1

enum {
	RECORD_LIVE = 1,
	RECORD_HAS_LOST = 2,
	RECORD_ADOTS_SAME = 4, /* adots equal dots */
	RECORD_MDOTS_SAME = 8,
	RECORD_FLAGS = 15,
};

enum {
	ROW_HAS_RECORD = 1,
	ROW_HAS_STAMP = 2,
	ROW_HAS_RECORDED = 4,
	ROW_HAS_SINCE = 8,
	ROW_HAS_SOURCE = 16,
	ROW_EXACT = 32, /* since index format 2: u32, in which mount, after the stamp */
	ROW_FLAGS = 63,
};

#define MODE_MAX 07777
#define MODE_SYMLINK 0777
#define KIND_OPAQUE_MIN (RECORD_SYMLINK + 1)

static void free_owned(struct record *r)
{
	free(r->target);
	free(r->vv.v);
	free(r->dots.v);
	free(r->lost.v);
	free(r->adots.v);
	free(r->mdots.v);
}

void record_deinit(struct record *r)
{
	free_owned(r);
	*r = (struct record){0};
}

static int copy_owned(struct record *to, const struct record *from)
{
	int r;

	if (from->target) {
		to->target = strdup(from->target);
		if (!to->target)
			return -ENOMEM;
	}
	r = version_vector_copy(&to->vv, &from->vv);
	if (r == 0)
		r = version_dots_copy(&to->dots, &from->dots);
	if (r == 0)
		r = version_dots_copy(&to->lost, &from->lost);
	if (r == 0)
		r = version_dots_copy(&to->adots, &from->adots);
	if (r == 0)
		r = version_dots_copy(&to->mdots, &from->mdots);
	return r;
}

int record_copy(struct record *ret, const struct record *from)
{
	struct record copy = *from;
	int r;

	copy.target = NULL;
	copy.vv = (struct version_vector){0};
	copy.dots = copy.lost = copy.adots = copy.mdots = (struct version_dots){0};
	r = copy_owned(&copy, from);
	if (r < 0) {
		record_deinit(&copy);
		return r;
	}
	record_deinit(ret);
	*ret = copy;
	return 0;
}

bool record_same_state(const struct record *a, const struct record *b)
{
	if (a->live != b->live || a->kind != b->kind || !content_equal(&a->content, &b->content))
		return false;
	return a->target && b->target ? !strcmp(a->target, b->target) : a->target == b->target;
}

bool record_same_attributes(const struct record *a, const struct record *b)
{
	return a->mode == b->mode && a->uid == b->uid && a->gid == b->gid;
}

bool record_equal(const struct record *a, const struct record *b)
{
	return record_same_state(a, b) && record_same_attributes(a, b) &&
	       (a->mtime_ns == b->mtime_ns || a->kind == RECORD_DIRECTORY) &&
	       version_vector_equal(&a->vv, &b->vv) && version_dots_equal(&a->dots, &b->dots) &&
	       version_dots_equal(&a->lost, &b->lost) && version_dots_equal(&a->adots, &b->adots) &&
	       version_dots_equal(&a->mdots, &b->mdots);
}

/* --- what one record alone can show --- */

/* Could the vector know the dot? Its own entry does, or an entry of a later incarnation, whose
 * counters are higher. */
static bool may_contain(const struct version_vector *vv, const struct version_dots *dots)
{
	for (size_t i = 0; i < dots->n; i++)
		if (version_vector_get(vv, dots->v[i].inc) < dots->v[i].counter &&
			version_vector_max_counter(vv) <= dots->v[i].counter)
			return false;
	return true;
}

static bool content_is_zero(const struct content *c)
{
	return hash_is_zero(&c->root) && !c->size && !c->chunk_bits && !c->height;
}

static bool file_valid(const struct record *r)
{
	const struct content *c = &r->content;

	return !r->target && r->mdots.n && c->size <= INT64_MAX &&
	       c->chunk_bits >= CHUNK_BITS_MIN && c->chunk_bits <= CHUNK_BITS_MAX &&
	       c->height <= CHUNK_TREE_HEIGHT_MAX &&
	       (c->height || c->size <= UINT64_C(4) << c->chunk_bits);
}

static bool symlink_valid(const struct record *r)
{
	size_t n = r->target ? strlen(r->target) : 0;

	return n && n <= RECORD_TARGET_BYTES_MAX && r->mdots.n && r->mode == MODE_SYMLINK &&
	       r->content.size == n && !r->content.chunk_bits && !r->content.height;
}

static bool kind_valid(const struct record *r)
{
	switch (r->kind) {
	case 0:
		return false;
	case RECORD_FILE:
		return file_valid(r);
	case RECORD_DIRECTORY:
		return !r->target && !r->mdots.n && content_is_zero(&r->content);
	case RECORD_SYMLINK:
		return symlink_valid(r);
	default:
		return !r->target;
	}
}

static bool tombstone_valid(const struct record *r)
{
	return !r->kind && content_is_zero(&r->content) && !r->target && !r->mode && !r->uid &&
	       !r->gid && !r->adots.n && !r->mtime_ns && !r->mdots.n;
}

bool record_valid(const struct record *r)
{
	if (!r->dots.n || !may_contain(&r->vv, &r->dots) || !may_contain(&r->vv, &r->lost))
		return false;
	if (!r->live)
		return tombstone_valid(r);
	return r->adots.n && r->mode <= MODE_MAX && may_contain(&r->vv, &r->adots) &&
	       may_contain(&r->vv, &r->mdots) && kind_valid(r);
}

/* --- codec --- */

/* Not an assertion: a record is made of what peers sent. */
static void buf_fail(struct buf *b)
{
	if (!b->error)
		b->error = -EINVAL;
}

static void content_put(struct buf *b, const struct content *c)
{
	put_bytes(b, c->root.bytes, HASH_BYTES);
	put_varint(b, c->size);
	put_u8(b, c->chunk_bits);
	put_u8(b, c->height);
}

static void content_get(struct cursor *c, struct content *ret)
{
	get_bytes(c, ret->root.bytes, HASH_BYTES);
	ret->size = get_varint(c);
	ret->chunk_bits = get_u8(c);
	ret->height = get_u8(c);
}

static uint8_t record_flags(const struct record *r)
{
	uint8_t flags = 0;

	if (r->lost.n)
		flags |= RECORD_HAS_LOST;
	if (!r->live)
		return flags;
	flags |= RECORD_LIVE;
	if (version_dots_equal(&r->adots, &r->dots))
		flags |= RECORD_ADOTS_SAME;
	if (version_dots_equal(&r->mdots, &r->dots))
		flags |= RECORD_MDOTS_SAME;
	return flags;
}

static void state_put(struct buf *b, const struct record *r)
{
	if (r->kind == RECORD_SYMLINK) {
		put_bytes(b, r->content.root.bytes, HASH_BYTES);
		put_string(b, r->target, strlen(r->target));
	} else if (r->kind != RECORD_DIRECTORY) {
		content_put(b, &r->content);
	}
}

static void state_get(struct cursor *c, uint8_t kind, struct content *ret, char **ret_target)
{
	if (kind == RECORD_SYMLINK) {
		get_bytes(c, ret->root.bytes, HASH_BYTES);
		*ret_target = get_text(c, RECORD_TARGET_BYTES_MAX);
		ret->size = *ret_target ? strlen(*ret_target) : 0;
	} else if (kind != RECORD_DIRECTORY) {
		content_get(c, ret);
	}
}

static void attributes_put(struct buf *b, const struct record *r, int64_t mtime_ns)
{
	put_u8(b, r->kind);
	put_varint(b, r->mode);
	put_varint(b, r->uid);
	put_varint(b, r->gid);
	put_u64(b, (uint64_t)mtime_ns);
}

static void encode(struct buf *b, const struct record *r, int64_t mtime_ns)
{
	uint8_t flags = record_flags(r);

	if (!record_valid(r)) {
		buf_fail(b);
		return;
	}
	put_u8(b, RECORD_VERSION);
	put_u8(b, flags);
	version_vector_put(b, &r->vv);
	version_dots_put(b, &r->dots);
	if (flags & RECORD_HAS_LOST)
		version_dots_put(b, &r->lost);
	if (!r->live)
		return;
	attributes_put(b, r, mtime_ns);
	if (!(flags & RECORD_ADOTS_SAME))
		version_dots_put(b, &r->adots);
	if (!(flags & RECORD_MDOTS_SAME))
		version_dots_put(b, &r->mdots);
	state_put(b, r);
}

void record_put(struct buf *b, const struct record *r)
{
	encode(b, r, r->mtime_ns);
}

void record_values_put(struct buf *b, const struct record *r)
{
	attributes_put(b, r, r->kind == RECORD_DIRECTORY ? 0 : r->mtime_ns);
	state_put(b, r);
}

static void dots_get_or_same(
	struct cursor *c, bool same, const struct version_dots *dots, struct version_dots *ret)
{
	if (!same)
		version_dots_get(c, ret);
	else if (version_dots_copy(ret, dots) < 0)
		cursor_fail(c);
}

static void decode_live(struct cursor *c, uint8_t flags, struct record *ret)
{
	ret->live = true;
	ret->kind = get_u8(c);
	ret->mode = (uint16_t)get_varint_max(c, MODE_MAX);
	ret->uid = (uint32_t)get_varint_max(c, UINT32_MAX);
	ret->gid = (uint32_t)get_varint_max(c, UINT32_MAX);
	ret->mtime_ns = (int64_t)get_u64(c);
	dots_get_or_same(c, flags & RECORD_ADOTS_SAME, &ret->dots, &ret->adots);
	dots_get_or_same(c, flags & RECORD_MDOTS_SAME, &ret->dots, &ret->mdots);
	state_get(c, ret->kind, &ret->content, &ret->target);
}

void record_get(struct cursor *c, struct record *ret)
{
	uint8_t version = get_u8(c), flags = get_u8(c);

	*ret = (struct record){0};
	if (version != RECORD_VERSION || (flags & ~RECORD_FLAGS))
		cursor_fail(c);
	version_vector_get_from(c, &ret->vv);
	version_dots_get(c, &ret->dots);
	if (flags & RECORD_HAS_LOST)
		version_dots_get(c, &ret->lost);
	if (flags & RECORD_LIVE)
		decode_live(c, flags, ret);
	if (!c->failed && record_valid(ret) && record_flags(ret) == flags)
		return;
	cursor_fail(c);
	record_deinit(ret);
}

int record_hash(
	enum hash_algorithm algorithm, const char *path, const struct record *r, struct hash *ret)
{
	struct buf b = BUF_INIT;
	struct record shown = *r;
	int error;

	if (DEFECT(HASH_OF_STATE))
		shown.vv.n = shown.dots.n = shown.lost.n = shown.adots.n = shown.mdots.n = 0;
	put_string(&b, path, strlen(path));
	encode(&b, &shown, r->kind == RECORD_DIRECTORY ? 0 : r->mtime_ns);
	error = buf_error(&b);
	if (error == 0)
		hash_bytes(algorithm, b.data, b.len, ret);
	buf_deinit(&b);
	return error;
}

/* --- the local half --- */

void row_deinit(struct row *r)
{
	free_owned(&r->record);
	*r = (struct row){0};
}

int row_copy(struct row *ret, const struct row *from)
{
	struct row copy = *from;
	int r;

	copy.record = (struct record){0};
	r = record_copy(&copy.record, &from->record);
	if (r < 0)
		return r;
	row_deinit(ret);
	*ret = copy;
	return 0;
}

bool row_has_record(const struct row *r)
{
	return r->record.dots.n;
}

bool row_live(const struct row *r)
{
	return row_has_record(r) && r->record.live;
}

/* An implied directory has no live record; every other row has a record, and one that is on disk a
 * live one. */
static bool row_valid(const struct row *r)
{
	if (r->place > ROW_COLLIDES)
		return false;
	if (r->place == ROW_IMPLIED)
		return !row_live(r);
	return r->place == ROW_ON_DISK ? row_live(r) : row_has_record(r);
}

static bool has_stamp(const struct row *r)
{
	return r->place == ROW_ON_DISK || r->place == ROW_IMPLIED;
}

static uint8_t row_flags(const struct row *r)
{
	return (uint8_t)((row_has_record(r) ? ROW_HAS_RECORD : 0) |
			 (has_stamp(r) ? ROW_HAS_STAMP : 0) |
			 (r->recorded_ns ? ROW_HAS_RECORDED : 0) |
			 (r->since_ns ? ROW_HAS_SINCE : 0) | (r->source ? ROW_HAS_SOURCE : 0) |
			 (has_stamp(r) && r->stamp.exact ? ROW_EXACT : 0));
}

void row_put(struct buf *b, const struct row *r)
{
	uint8_t flags = row_flags(r);

	if (!row_valid(r)) {
		buf_fail(b);
		return;
	}
	put_u8(b, ROW_VERSION);
	put_u8(b, flags);
	put_u8(b, r->place);
	put_varint(b, r->seq);
	if (flags & ROW_HAS_STAMP)
		stamp_put(b, &r->stamp);
	if (flags & ROW_EXACT)
		put_u32(b, r->stamp.exact);
	if (flags & ROW_HAS_RECORDED)
		put_u64(b, (uint64_t)r->recorded_ns);
	if (flags & ROW_HAS_SINCE)
		put_u64(b, (uint64_t)r->since_ns);
	if (flags & ROW_HAS_SOURCE)
		put_u64(b, r->source);
	if (flags & ROW_HAS_RECORD)
		record_put(b, &r->record);
}

/* What stands before the record, into a row of zeros. Returns the flags. */
static uint8_t row_head_get(struct cursor *c, struct row *ret)
{
	uint8_t version = get_u8(c), flags = get_u8(c);

	ret->place = get_u8(c);
	ret->seq = get_varint(c);
	if (version != ROW_VERSION || (flags & ~ROW_FLAGS))
		cursor_fail(c);
	if (flags & ROW_HAS_STAMP)
		stamp_get(c, &ret->stamp);
	if (flags & ROW_EXACT)
		ret->stamp.exact = get_u32(c);
	if (flags & ROW_HAS_RECORDED)
		ret->recorded_ns = (int64_t)get_u64(c);
	if (flags & ROW_HAS_SINCE)
		ret->since_ns = (int64_t)get_u64(c);
	if (flags & ROW_HAS_SOURCE)
		ret->source = get_u64(c);
	return flags;
}

void row_get(struct cursor *c, struct row *ret)
{
	uint8_t flags;

	*ret = (struct row){0};
	flags = row_head_get(c, ret);
	if (flags & ROW_HAS_RECORD)
		record_get(c, &ret->record);
	if (!c->failed && row_valid(ret) && row_flags(ret) == flags)
		return;
	cursor_fail(c);
	row_deinit(ret);
}

void row_brief_deinit(struct row_brief *r)
{
	free(r->target);
	*r = (struct row_brief){0};
}

int row_brief_copy(struct row_brief *ret, const struct row_brief *from)
{
	char *target = from->target ? strdup(from->target) : NULL;

	if (from->target && !target)
		return -ENOMEM;
	*ret = *from;
	ret->target = target;
	return 0;
}

/* The record's kind, content and target. */
static void brief_of_record(struct cursor *c, struct row_brief *ret)
{
	uint8_t version = get_u8(c), flags = get_u8(c);

	if (version != RECORD_VERSION || (flags & ~RECORD_FLAGS))
		cursor_fail(c);
	version_skip(c);
	version_skip(c);
	if (flags & RECORD_HAS_LOST)
		version_skip(c);
	ret->live = flags & RECORD_LIVE;
	if (!ret->live)
		return;
	ret->kind = get_u8(c);
	for (int k = 0; k < 3; k++) /* mode, uid, gid */
		get_varint(c);
	get_u64(c); /* mtime */
	if (!(flags & RECORD_ADOTS_SAME))
		version_skip(c);
	if (!(flags & RECORD_MDOTS_SAME))
		version_skip(c);
	state_get(c, ret->kind, &ret->content, &ret->target);
}

void row_brief_get(struct cursor *c, struct row_brief *ret)
{
	struct row head = {0};
	uint8_t flags = row_head_get(c, &head);

	*ret = (struct row_brief){.place = head.place, .seq = head.seq, .stamp = head.stamp, .recorded_ns = head.recorded_ns};
	if (head.place > ROW_COLLIDES)
		cursor_fail(c);
	if (flags & ROW_HAS_RECORD)
		brief_of_record(c, ret);
	if (c->failed)
		row_brief_deinit(ret);
}

void stamp_put(struct buf *b, const struct stamp *s)
{
	put_varint(b, s->ino);
	put_varint(b, s->generation);
	put_varint(b, s->size);
	put_u64(b, (uint64_t)s->mtime_ns);
	put_u64(b, (uint64_t)s->ctime_ns);
	put_varint(b, s->mode);
	put_varint(b, s->uid);
	put_varint(b, s->gid);
	put_varint(b, s->nlink);
}

void stamp_get(struct cursor *c, struct stamp *ret)
{
	ret->ino = get_varint(c);
	ret->generation = get_varint(c);
	ret->size = get_varint(c);
	ret->mtime_ns = (int64_t)get_u64(c);
	ret->ctime_ns = (int64_t)get_u64(c);
	ret->mode = (uint16_t)get_varint_max(c, UINT16_MAX);
	ret->uid = (uint32_t)get_varint_max(c, UINT32_MAX);
	ret->gid = (uint32_t)get_varint_max(c, UINT32_MAX);
	ret->nlink = (uint32_t)get_varint_max(c, UINT32_MAX);
	ret->exact = 0;
}

bool stamp_equal(const struct stamp *a, const struct stamp *b)
{
	return a->ino == b->ino && a->size == b->size && a->mtime_ns == b->mtime_ns &&
	       a->ctime_ns == b->ctime_ns && a->mode == b->mode && a->uid == b->uid &&
	       a->gid == b->gid;
}
