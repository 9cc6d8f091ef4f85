/*
 * transfer/frame.c — see transfer/frame.h.
 *
 *   reader->in:   | taken, kept for the caller |  next frame …  | fed beyond it |
 *                 0                           pos            pos + want       in.len
 *
 * Invariants: pos <= in.len. Nothing moves inside `in` but in feed, so a payload handed out stays
 * where it is and many small frames in one feed cost no quadratic moving. `want` is what frame_read
 * last found it needs from pos: a preface, a header, or a header and a payload whose length was
 * checked. feed accepts nothing while want is satisfied.
 */
#include "transfer/frame.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>
#include <zstd.h>
#include <zstd_errors.h>

#include "base/error.h"
#include "base/log.h"

#define FRAME_MAGIC "syncd" /* with its NUL: 6 bytes */
#define FRAME_MAGIC_BYTES sizeof(FRAME_MAGIC)
#define FRAME_CHECKED_HEADER_BYTES 8
#define FRAME_FLAG_ZSTD 1
#define FRAME_FLAG_CONTEXT 2
#define FRAME_FLAG_BEGINS 4
#define FRAME_RAW_LENGTH_BYTES 4
#define CONTEXT_LEVEL_MIDDLE 3 /* above it zstd's own tables are of up to 12 MiB, which gain 2 % */
#define CONTEXT_TABLE_BITS 17
#define CONTEXT_HASH_BITS 16 /* at it 320 KiB, cleared for each context; zstd's own are 768, gain 1 % at most, and take a tenth more time */
#define CONTEXT_CHAIN_BITS 14
#define FRAME_KEEP_BYTES (256 * 1024) /* a larger buffer is given back when it is empty */

struct frame_writer {
	ZSTD_CCtx *zstd; /* NULL: nothing was compressed yet */
	struct buf packed; /* what the last payload was compressed to */
	int zstd_level;
	bool plain; /* nothing is to be compressed */
	bool share;
	bool begun;	   /* the shared context goes on … */
	int context_level; /* … at this level */
	unsigned poor; /* payloads that tell, in a row, that did not get shorter */
	unsigned pass; /* such ones to come that are not tried */
	XXH3_state_t *xxh;
	uint64_t number; /* of the next frame */
};

enum reader_state {
	READER_PREFACE,
	READER_FRAMES,
	READER_GARBAGE, /* not our protocol: only the garbage is completed */
};

struct frame_reader {
	size_t (*max_bytes)(uint8_t type);
	ZSTD_DCtx *zstd; /* NULL: nothing that is compressed came yet */
	ZSTD_DCtx *context; /* NULL: likewise */
	bool begun;	    /* it may go on */
	XXH3_state_t *xxh;
	struct buf in;	 /* input not yet given back to the heap */
	size_t pos;	 /* where the next frame begins */
	size_t want;	 /* bytes from pos that frame_read needs */
	struct buf raw;	 /* the last payload that was compressed */
	uint64_t number; /* of the next frame */
	int final;	 /* 0, or what every later frame_read returns */
	enum reader_state state;
	uint8_t version, peer_min, peer_max;
	char garbage[FRAME_GARBAGE_BYTES + 1];
	size_t n_garbage;
	char text[FRAME_GARBAGE_BYTES * 4 + 8]; /* garbage, quoted */
};

struct frame_header {
	uint32_t length; /* of the payload on the wire */
	uint8_t type;
	uint8_t flags;
	uint16_t reserved;
	uint32_t check;
};

void frame_put_preface(struct buf *out)
{
	static_assert(FRAME_MAGIC_BYTES + 2 == FRAME_PREFACE_BYTES, "the preface's parts");
	put_bytes(out, FRAME_MAGIC, FRAME_MAGIC_BYTES);
	put_u8(out, FRAME_VERSION_MIN);
	put_u8(out, FRAME_VERSION_MAX);
}

static uint32_t frame_check(XXH3_state_t *xxh, uint64_t number, const uint8_t *header,
	const uint8_t *payload, size_t n)
{
	XXH3_64bits_reset_withSeed(xxh, number);
	XXH3_64bits_update(xxh, header, FRAME_CHECKED_HEADER_BYTES);
	XXH3_64bits_update(xxh, payload, n);
	return (uint32_t)XXH3_64bits_digest(xxh);
}

/* --- writing --- */

int frame_writer_new(struct frame_writer **ret, int zstd_level)
{
	struct frame_writer *w = calloc(1, sizeof(*w));

	if (!w)
		return -ENOMEM;
	w->xxh = XXH3_createState();
	if (!w->xxh) {
		frame_writer_free(w);
		return -ENOMEM;
	}
	frame_writer_level(w, zstd_level);
	*ret = w;
	return 0;
}

void frame_writer_level(struct frame_writer *w, int zstd_level)
{
	w->zstd_level = zstd_level < FRAME_LEVEL_MAX ? zstd_level : FRAME_LEVEL_MAX;
}

void frame_writer_plain(struct frame_writer *w)
{
	w->plain = true;
}

void frame_writer_share(struct frame_writer *w)
{
	w->share = true;
}

void frame_writer_free(struct frame_writer *w)
{
	if (!w)
		return;
	ZSTD_freeCCtx(w->zstd);
	buf_deinit(&w->packed);
	XXH3_freeState(w->xxh);
	free(w);
}

/* Most sessions have nothing to compress, and its tables are large. */
static bool zstd_wanted(struct frame_writer *w)
{
	if (w->zstd)
		return true;
	w->zstd = ZSTD_createCCtx();
	return w->zstd != NULL;
}

/* Does a payload of this length say something about the next one? */
static bool tells(const struct frame_writer *w, size_t n)
{
	return w->share || n >= FRAME_LONG_BYTES;
}

/* One is passed after so many that did not get shorter, and more after each further one. */
static void watch_gain(struct frame_writer *w, size_t n, bool gained)
{
	if (!tells(w, n))
		return;
	w->poor = gained ? 0 : w->poor + 1;
	if (w->poor >= FRAME_POOR_MIN)
		w->pass = w->poor - FRAME_POOR_MIN < FRAME_PASS_MAX ? w->poor - FRAME_POOR_MIN + 1 : FRAME_PASS_MAX;
}

static size_t worth(size_t n)
{
	return n - (n + 19) / 20;
}

/* By itself, which ends a shared context. The length, 0 if it does not pay. */
static size_t compress_alone(struct frame_writer *w, const void *payload, size_t n, bool noise)
{
	int level = noise && w->zstd_level > FRAME_LOOK_LEVEL ? FRAME_LOOK_LEVEL : w->zstd_level;
	size_t packed;

	if (w->begun)
		ZSTD_CCtx_reset(w->zstd, ZSTD_reset_session_and_parameters);
	w->begun = false;
	ZSTD_CCtx_setParameter(w->zstd, ZSTD_c_compressionLevel, level); /* which clamps what is below its own minimum */
	packed = ZSTD_compress2(w->zstd, w->packed.data, worth(n) - FRAME_RAW_LENGTH_BYTES, payload, n);
	watch_gain(w, n, !ZSTD_isError(packed));
	return ZSTD_isError(packed) ? 0 : packed; /* mostly: does not fit into what would be worth it */
}

static void begin_context(struct frame_writer *w)
{
	ZSTD_CCtx_reset(w->zstd, ZSTD_reset_session_and_parameters);
	ZSTD_CCtx_setParameter(w->zstd, ZSTD_c_compressionLevel, w->zstd_level);
	ZSTD_CCtx_setParameter(w->zstd, ZSTD_c_windowLog, FRAME_WINDOW_BITS);
	if (w->zstd_level >= CONTEXT_LEVEL_MIDDLE) {
		bool middle = w->zstd_level == CONTEXT_LEVEL_MIDDLE;

		ZSTD_CCtx_setParameter(w->zstd, ZSTD_c_hashLog, middle ? CONTEXT_HASH_BITS : CONTEXT_TABLE_BITS);
		ZSTD_CCtx_setParameter(w->zstd, ZSTD_c_chainLog, middle ? CONTEXT_CHAIN_BITS : CONTEXT_TABLE_BITS);
	}
	w->context_level = w->zstd_level;
}

/* In the shared context. What went into it is sent, even if it is no shorter. 0: failed, which ends the context. */
static size_t compress_shared(struct frame_writer *w, const void *payload, size_t n)
{
	ZSTD_inBuffer in = {payload, n, 0};
	ZSTD_outBuffer out = {w->packed.data, n + FRAME_CONTEXT_BYTES - FRAME_RAW_LENGTH_BYTES, 0};
	size_t left = ZSTD_compressStream2(w->zstd, &out, &in, ZSTD_e_flush);

	w->begun = left == 0;
	if (!w->begun)
		ZSTD_CCtx_reset(w->zstd, ZSTD_reset_session_and_parameters);
	watch_gain(w, n, w->begun && out.pos + FRAME_RAW_LENGTH_BYTES <= worth(n));
	return w->begun ? out.pos : 0;
}

/* Puts the compressed form in the payload's place, with FRAME_CONTEXT_BYTES behind it if a context is shared; its length, 0 if the payload is
 * to go as it is. */
static size_t compress_payload(struct frame_writer *w, uint8_t *payload, size_t n, uint8_t *ret_flags)
{
	struct buf length = {.data = payload, .cap = FRAME_RAW_LENGTH_BYTES};
	bool noise = w->poor >= FRAME_POOR_MIN && tells(w, n);
	size_t packed;

	if (w->pass && tells(w, n)) {
		w->pass--;
		return 0;
	}
	buf_clear(&w->packed);
	if (!buf_reserve(&w->packed, n + FRAME_CONTEXT_BYTES) || !zstd_wanted(w))
		return 0;
	if (w->share && !noise) {
		*ret_flags = FRAME_FLAG_CONTEXT;
		if (!w->begun || w->context_level != w->zstd_level) {
			begin_context(w);
			*ret_flags |= FRAME_FLAG_BEGINS;
		}
		packed = compress_shared(w, payload, n);
	} else {
		*ret_flags = FRAME_FLAG_ZSTD;
		packed = compress_alone(w, payload, n, noise);
	}
	if (packed) {
		put_u32(&length, (uint32_t)n);
		memcpy(payload + FRAME_RAW_LENGTH_BYTES, w->packed.data, packed);
		packed += FRAME_RAW_LENGTH_BYTES;
	}
	if (w->packed.cap > FRAME_KEEP_BYTES)
		buf_deinit(&w->packed);
	return packed;
}

static void put_header(uint8_t *at, const struct frame_header *h)
{
	struct buf b = {.data = at, .cap = FRAME_HEADER_BYTES};

	put_u32(&b, h->length);
	put_u8(&b, h->type);
	put_u8(&b, h->flags);
	put_u16(&b, h->reserved);
	put_u32(&b, h->check);
	assert(b.len == FRAME_HEADER_BYTES && !buf_error(&b));
}

size_t frame_begin(struct buf *frames)
{
	size_t start = frames->len;

	buf_reserve(frames, FRAME_HEADER_BYTES);
	return start;
}

int frame_end(struct frame_writer *w, struct buf *frames, size_t start, uint8_t type, bool compress)
{
	struct frame_header h = {.type = type};
	size_t n = buf_error(frames) ? 0 : frames->len - start - FRAME_HEADER_BYTES, packed = 0;
	uint8_t flags = 0;

	if (w->share)
		buf_reserve(frames, FRAME_CONTEXT_BYTES);
	if (buf_error(frames) || n > UINT32_MAX) {
		frames->len = start;
		return buf_error(frames) ? buf_error(frames) : -EMSGSIZE;
	}
	if (compress && !w->plain && n >= FRAME_COMPRESS_MIN_BYTES)
		packed = compress_payload(w, frames->data + start + FRAME_HEADER_BYTES, n, &flags);
	if (packed)
		h.flags = flags;
	h.length = (uint32_t)(packed ? packed : n);
	put_header(frames->data + start, &h);
	frames->len = start + FRAME_HEADER_BYTES + h.length;
	return 0;
}

int frame_prepare(struct frame_writer *w, struct buf *frames, uint8_t type, const void *payload,
	size_t n, bool compress)
{
	size_t start = frame_begin(frames);

	put_bytes(frames, payload, n);
	return frame_end(w, frames, start, type, compress);
}

/* Number the frame that begins here; how long it is. */
static size_t frame_finish(struct frame_writer *w, uint8_t *frame)
{
	struct cursor c = cursor_over(frame, FRAME_HEADER_BYTES);
	struct buf check = {.data = frame + FRAME_CHECKED_HEADER_BYTES, .cap = sizeof(uint32_t)};
	size_t length = get_u32(&c);

	put_u32(&check, frame_check(w->xxh, w->number++, frame, frame + FRAME_HEADER_BYTES, length));
	return FRAME_HEADER_BYTES + length;
}

int frame_write_prepared(struct frame_writer *w, struct buf *out, struct buf *frames)
{
	size_t at = out->len;

	if (!out->len && !out->max_bytes && !buf_error(out)) {
		struct buf empty = *out;

		*out = *frames;
		*frames = empty;
	} else {
		put_bytes(out, frames->data, frames->len);
	}
	if (buf_error(out))
		return buf_error(out);
	while (at < out->len)
		at += frame_finish(w, out->data + at);
	return 0;
}

int frame_write(struct frame_writer *w, struct buf *out, uint8_t type, const void *payload,
	size_t n, bool compress)
{
	size_t start = out->len;
	int r = frame_prepare(w, out, type, payload, n, compress);

	if (r == 0)
		frame_finish(w, out->data + start);
	return r;
}

/* --- reading --- */

int frame_reader_new(struct frame_reader **ret, size_t (*max_bytes)(uint8_t type))
{
	struct frame_reader *r = calloc(1, sizeof(*r));

	if (!r)
		return -ENOMEM;
	r->max_bytes = max_bytes;
	r->want = FRAME_PREFACE_BYTES;
	r->xxh = XXH3_createState();
	if (!r->xxh) {
		frame_reader_free(r);
		return -ENOMEM;
	}
	*ret = r;
	return 0;
}

void frame_reader_free(struct frame_reader *r)
{
	if (!r)
		return;
	ZSTD_freeDCtx(r->zstd);
	ZSTD_freeDCtx(r->context);
	XXH3_freeState(r->xxh);
	buf_deinit(&r->in);
	buf_deinit(&r->raw);
	free(r);
}

static void garbage_add(struct frame_reader *r, const uint8_t *p, size_t n)
{
	while (n-- && r->n_garbage < FRAME_GARBAGE_BYTES) {
		r->garbage[r->n_garbage++] = *p ? (char)*p : '?';
		p++;
	}
	r->garbage[r->n_garbage] = 0;
	text_quote(r->text, sizeof(r->text), r->garbage);
}

static void give_back(struct buf *b)
{
	if (b->cap > FRAME_KEEP_BYTES)
		buf_deinit(b);
	else
		buf_clear(b);
}

int frame_reader_feed(struct frame_reader *r, const void *p, size_t n)
{
	if (r->state == READER_GARBAGE) {
		garbage_add(r, p, n);
		return 0;
	}
	if (r->final)
		return 0; /* nothing more is read; frame_read says why */
	if (r->in.len - r->pos >= r->want)
		return -ENOBUFS;
	if (r->pos == r->in.len)
		give_back(&r->in);
	else if (r->pos)
		buf_consume(&r->in, r->pos);
	r->pos = 0;
	put_bytes(&r->in, p, n);
	return buf_error(&r->in);
}

/* What is not syncd is told by its first differing byte: it may never send as much as a preface. */
static int read_preface(struct frame_reader *r)
{
	const uint8_t *p = r->in.data;
	size_t n = r->in.len;

	if (n && memcmp(p, FRAME_MAGIC, n < FRAME_MAGIC_BYTES ? n : FRAME_MAGIC_BYTES) != 0) {
		r->state = READER_GARBAGE;
		garbage_add(r, p, n);
		buf_deinit(&r->in);
		return FRAME_NOT_SYNCD;
	}
	if (n < FRAME_PREFACE_BYTES)
		return FRAME_MORE;
	r->peer_min = p[FRAME_MAGIC_BYTES];
	r->peer_max = p[FRAME_MAGIC_BYTES + 1];
	if (r->peer_min == 0 || r->peer_min > r->peer_max)
		return -EBADMSG;
	if (r->peer_max < FRAME_VERSION_MIN || r->peer_min > FRAME_VERSION_MAX)
		return FRAME_VERSION;
	r->version = r->peer_max < FRAME_VERSION_MAX ? r->peer_max : FRAME_VERSION_MAX;
	r->pos = FRAME_PREFACE_BYTES;
	r->want = FRAME_HEADER_BYTES;
	r->state = READER_FRAMES;
	return 0;
}

static bool flags_possible(const struct frame_reader *r, uint8_t flags)
{
	switch (flags) {
	case 0:
	case FRAME_FLAG_ZSTD:
		return true;
	case FRAME_FLAG_CONTEXT:
		return r->begun;
	case FRAME_FLAG_CONTEXT | FRAME_FLAG_BEGINS:
		return r->version >= FRAME_VERSION_CONTEXT;
	default:
		return false;
	}
}

/* The header at pos, all of it checked but the sum. */
static int read_header(const struct frame_reader *r, struct frame_header *ret)
{
	struct cursor c = cursor_over(r->in.data + r->pos, FRAME_HEADER_BYTES);
	size_t max;

	ret->length = get_u32(&c);
	ret->type = get_u8(&c);
	ret->flags = get_u8(&c);
	ret->reserved = get_u16(&c);
	ret->check = get_u32(&c);
	max = r->max_bytes(ret->type);
	if (max == 0 || !flags_possible(r, ret->flags) || ret->reserved)
		return -EBADMSG;
	return ret->length > (ret->flags & FRAME_FLAG_CONTEXT ? max + FRAME_CONTEXT_BYTES : max) ? -EBADMSG : 0;
}

/* Exactly one zstd frame that says that it holds what the payload says. */
static int decompress_alone(struct frame_reader *r, uint8_t *room, size_t length, const struct cursor *c)
{
	size_t left = cursor_left(c);

	if (ZSTD_getFrameContentSize(c->p, left) != length || ZSTD_findFrameCompressedSize(c->p, left) != left)
		return -EBADMSG;
	if (!r->zstd)
		r->zstd = ZSTD_createDCtx();
	if (!r->zstd)
		return -ENOMEM;
	return ZSTD_decompressDCtx(r->zstd, room, length, c->p, left) == length ? 0 : -EBADMSG;
}

/* The rest of a zstd frame so far that does not end here, and makes what the payload says. */
static int decompress_shared(struct frame_reader *r, uint8_t *room, size_t length, const struct cursor *c, bool begins)
{
	ZSTD_inBuffer in = {c->p, cursor_left(c), 0};
	ZSTD_outBuffer out = {room, length, 0};
	size_t moved, left;

	if (!r->context)
		r->context = ZSTD_createDCtx();
	if (!r->context)
		return -ENOMEM;
	if (begins) {
		ZSTD_DCtx_reset(r->context, ZSTD_reset_session_and_parameters);
		ZSTD_DCtx_setParameter(r->context, ZSTD_d_windowLogMax, FRAME_WINDOW_BITS);
		r->begun = true;
	}
	do {
		moved = in.pos + out.pos;
		left = ZSTD_decompressStream(r->context, &out, &in);
		if (ZSTD_isError(left))
			return ZSTD_getErrorCode(left) == ZSTD_error_memory_allocation ? -ENOMEM : -EBADMSG;
		if (left == 0)
			return -EBADMSG; /* it ends */
	} while ((in.pos < in.size || out.pos < out.size) && in.pos + out.pos > moved);
	return in.pos == in.size && out.pos == out.size ? 0 : -EBADMSG;
}

static int decompress_payload(struct frame_reader *r, const struct frame_header *h, const uint8_t *payload)
{
	struct cursor c = cursor_over(payload, h->length);
	uint32_t length = get_u32(&c);
	uint8_t *room;

	if (c.failed || length == 0 || length > r->max_bytes(h->type))
		return -EBADMSG;
	room = buf_reserve(&r->raw, length);
	if (!room)
		return buf_error(&r->raw);
	if (h->flags & FRAME_FLAG_CONTEXT)
		return decompress_shared(r, room, length, &c, h->flags & FRAME_FLAG_BEGINS);
	return decompress_alone(r, room, length, &c);
}

static int read_frame(struct frame_reader *r, uint8_t *ret_type, const uint8_t **ret_payload,
	size_t *ret_n)
{
	const uint8_t *payload;
	struct frame_header h;
	int e;

	if (r->in.len - r->pos < FRAME_HEADER_BYTES)
		return FRAME_MORE;
	e = read_header(r, &h);
	if (e < 0)
		return e;
	r->want = (size_t)FRAME_HEADER_BYTES + h.length;
	if (r->in.len - r->pos < r->want)
		return FRAME_MORE;
	payload = r->in.data + r->pos + FRAME_HEADER_BYTES;
	if (frame_check(r->xxh, r->number, r->in.data + r->pos, payload, h.length) != h.check)
		return -EBADMSG;
	if (h.flags) {
		e = decompress_payload(r, &h, payload);
		if (e < 0)
			return e;
	}
	r->number++;
	r->pos += r->want;
	r->want = FRAME_HEADER_BYTES;
	*ret_type = h.type;
	*ret_payload = h.flags ? r->raw.data : payload;
	*ret_n = h.flags ? r->raw.len : h.length;
	return 0;
}

int frame_read(struct frame_reader *r, uint8_t *ret_type, const uint8_t **ret_payload,
	size_t *ret_n)
{
	int e = 0;

	if (r->final)
		return r->final;
	give_back(&r->raw);
	if (r->state == READER_PREFACE)
		e = read_preface(r);
	if (e == 0)
		e = read_frame(r, ret_type, ret_payload, ret_n);
	if (e != 0 && e != FRAME_MORE)
		r->final = e;
	return e;
}

uint8_t frame_reader_version(const struct frame_reader *r)
{
	return r->version;
}

void frame_reader_versions(const struct frame_reader *r, uint8_t *ret_min, uint8_t *ret_max)
{
	*ret_min = r->peer_min;
	*ret_max = r->peer_max;
}

const char *frame_reader_garbage(const struct frame_reader *r)
{
	return r->text;
}
