/*
 * base/buf.h — growable byte buffers and read cursors with paired put/get and sticky failure.
 *
 * Write all fields, then look at buf_error() once; read all fields, then call cursor_finish() once,
 * which also requires that nothing is left. After the first failure every put is a no-op and every
 * get returns zero (or an empty range), so that a decoder needs no branch per field.
 *
 * Integers are little-endian; varints are LEB128 of at most 10 bytes, only the shortest form accepted.
 * (After OpenSSH's sshbuf and dbus-broker's poisoned reader.)
 */
#ifndef BASE_BUF_H
#define BASE_BUF_H

#include <endian.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

struct buf {
	uint8_t *data;	  /* owned */
	size_t len;	  /* bytes in use */
	size_t cap;	  /* bytes allocated */
	size_t max_bytes; /* puts beyond it fail with -EMSGSIZE; 0 = no limit */
	int error;	  /* first failure, sticky: 0 or negative errno */
};

#define BUF_INIT {0}

void buf_deinit(struct buf *b); /* frees; the buffer is as new afterwards, with max_bytes kept */
void buf_clear(struct buf *b);	/* len = 0 and error = 0, memory kept */
int buf_error(const struct buf *b);
/* Append n bytes of room and return a pointer to it, NULL after failure. Valid until the next put. */
uint8_t *buf_reserve(struct buf *b, size_t n);
/* Remove the first n bytes (memmove). */
void buf_consume(struct buf *b, size_t n);

void put_u8(struct buf *b, uint8_t v);
void put_u16(struct buf *b, uint16_t v);
void put_u32(struct buf *b, uint32_t v);
void put_u64(struct buf *b, uint64_t v);
void put_varint(struct buf *b, uint64_t v);
void put_bytes(struct buf *b, const void *p, size_t n);	 /* raw, no length */
void put_string(struct buf *b, const void *p, size_t n); /* varint length, then the bytes */

struct cursor {
	const uint8_t *p;   /* next byte; not owned */
	const uint8_t *end; /* one past the last */
	bool failed;	    /* sticky */
};

struct cursor cursor_over(const void *p, size_t n);
static inline size_t cursor_left(const struct cursor *c)
{
	return c->failed ? 0 : (size_t)(c->end - c->p);
}
/* A decoder found a value that may not be. */
static inline void cursor_fail(struct cursor *c)
{
	c->failed = true;
}
/* 0 if nothing failed and nothing is left, else -EBADMSG. */
int cursor_finish(const struct cursor *c);

/* The next n bytes, or NULL. */
static inline const uint8_t *cursor_step(struct cursor *c, size_t n)
{
	const uint8_t *p = c->p;

	if (c->failed || (size_t)(c->end - p) < n) {
		c->failed = true;
		return NULL;
	}
	c->p += n;
	return p;
}
static inline uint8_t get_u8(struct cursor *c)
{
	const uint8_t *p = cursor_step(c, 1);

	return p ? *p : 0;
}
uint16_t get_u16(struct cursor *c);
uint32_t get_u32(struct cursor *c);
static inline uint64_t get_u64(struct cursor *c)
{
	const uint8_t *p = cursor_step(c, sizeof(uint64_t));
	uint64_t v = 0;

	if (p)
		memcpy(&v, p, sizeof(v));
	return le64toh(v);
}
uint64_t get_long_varint(struct cursor *c); /* as the next, of any length */
static inline uint64_t get_varint(struct cursor *c)
{
	return !c->failed && c->p < c->end && *c->p < 0x80 ? *c->p++ : get_long_varint(c);
}
/* A varint of at most `max`; a larger one fails the cursor. */
static inline uint64_t get_varint_max(struct cursor *c, uint64_t max)
{
	uint64_t v = get_varint(c);

	if (v <= max)
		return v;
	c->failed = true;
	return 0;
}
void get_bytes(struct cursor *c, void *ret, size_t n); /* zero-fills ret on failure */
/* Points into the cursor's memory; *ret_n = 0 on failure or if longer than max_bytes (which fails). */
const uint8_t *get_string(struct cursor *c, size_t max_bytes, size_t *ret_n);
/* The same as a NUL-terminated heap copy; fails on an embedded NUL. NULL on failure. */
char *get_text(struct cursor *c, size_t max_bytes);

#endif
