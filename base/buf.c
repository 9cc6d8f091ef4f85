/* base/buf.c — see base/buf.h. */
#include "base/buf.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"

void buf_deinit(struct buf *b)
{
	free(b->data);
	*b = (struct buf){.max_bytes = b->max_bytes};
}

void buf_clear(struct buf *b)
{
	b->len = 0;
	b->error = 0;
}

int buf_error(const struct buf *b)
{
	return b->error;
}

uint8_t *buf_reserve(struct buf *b, size_t n)
{
	uint8_t *room;
	int r;

	if (b->error)
		return NULL;
	if (n > SIZE_MAX - b->len || (b->max_bytes && b->len + n > b->max_bytes)) {
		b->error = -EMSGSIZE;
		return NULL;
	}
	r = array_reserve(&b->data, &b->cap, b->len + n ? b->len + n : 1, 1);
	if (r < 0) {
		b->error = r;
		return NULL;
	}
	room = b->data + b->len;
	b->len += n;
	return room;
}

void buf_consume(struct buf *b, size_t n)
{
	if (n >= b->len) {
		b->len = 0;
		return;
	}
	memmove(b->data, b->data + n, b->len - n);
	b->len -= n;
}

void put_bytes(struct buf *b, const void *p, size_t n)
{
	uint8_t *room = buf_reserve(b, n);

	if (room && n)
		memcpy(room, p, n);
}

void put_u8(struct buf *b, uint8_t v)
{
	uint8_t *room = buf_reserve(b, sizeof(v));

	if (room)
		*room = v;
}

void put_u16(struct buf *b, uint16_t v)
{
	uint8_t *room = buf_reserve(b, sizeof(v));

	v = htole16(v);
	if (room)
		memcpy(room, &v, sizeof(v));
}

void put_u32(struct buf *b, uint32_t v)
{
	uint8_t *room = buf_reserve(b, sizeof(v));

	v = htole32(v);
	if (room)
		memcpy(room, &v, sizeof(v));
}

void put_u64(struct buf *b, uint64_t v)
{
	uint8_t *room = buf_reserve(b, sizeof(v));

	v = htole64(v);
	if (room)
		memcpy(room, &v, sizeof(v));
}

void put_varint(struct buf *b, uint64_t v)
{
	uint8_t bytes[10];
	size_t n = 0;

	while (v >= 0x80) {
		bytes[n++] = (uint8_t)(v | 0x80);
		v >>= 7;
	}
	bytes[n++] = (uint8_t)v;
	put_bytes(b, bytes, n);
}

void put_string(struct buf *b, const void *p, size_t n)
{
	put_varint(b, n);
	put_bytes(b, p, n);
}

struct cursor cursor_over(const void *p, size_t n)
{
	if (!p)
		p = ""; /* so that steps of nothing are defined, and strings are never NULL */
	return (struct cursor){.p = p, .end = (const uint8_t *)p + n};
}

int cursor_finish(const struct cursor *c)
{
	return c->failed || c->p != c->end ? -EBADMSG : 0;
}

void get_bytes(struct cursor *c, void *ret, size_t n)
{
	const uint8_t *p = cursor_step(c, n);

	if (!p)
		memset(ret, 0, n);
	else if (n)
		memcpy(ret, p, n);
}

uint16_t get_u16(struct cursor *c)
{
	const uint8_t *p = cursor_step(c, sizeof(uint16_t));
	uint16_t v = 0;

	if (p)
		memcpy(&v, p, sizeof(v));
	return le16toh(v);
}

uint32_t get_u32(struct cursor *c)
{
	const uint8_t *p = cursor_step(c, sizeof(uint32_t));
	uint32_t v = 0;

	if (p)
		memcpy(&v, p, sizeof(v));
	return le32toh(v);
}

uint64_t get_long_varint(struct cursor *c)
{
	const uint8_t *p = c->p, *end = c->failed ? p : c->end;
	uint64_t v = 0;

	for (unsigned shift = 0; shift < 64 && p < end; shift += 7) {
		uint8_t byte = *p++;

		if ((shift == 63 && byte > 1) || (shift && byte == 0))
			break; /* overflow, or not the shortest form */
		v |= (uint64_t)(byte & 0x7f) << shift;
		if (!(byte & 0x80)) {
			c->p = p;
			return v;
		}
	}
	c->failed = true;
	return 0;
}

const uint8_t *get_string(struct cursor *c, size_t max_bytes, size_t *ret_n)
{
	size_t n = get_varint_max(c, max_bytes);
	const uint8_t *p = c->p;

	if (cursor_left(c) < n)
		c->failed = true;
	if (c->failed)
		n = 0;
	c->p += n;
	*ret_n = n;
	return p;
}

char *get_text(struct cursor *c, size_t max_bytes)
{
	size_t n;
	const uint8_t *p = get_string(c, max_bytes, &n);
	char *text;

	if (c->failed)
		return NULL;
	text = n && memchr(p, 0, n) ? NULL : malloc(n + 1);
	if (!text) {
		c->failed = true;
		return NULL;
	}
	if (n)
		memcpy(text, p, n);
	text[n] = 0;
	return text;
}
