/*
 * tests/fuzz/fuzz_frame.c — hostile bytes, in pieces, to a frame_reader.
 *
 * Input: u8 mode, u8 seed of the pieces' sizes, then the stream. Mode bit 0: the sums of the frames
 * are repaired first, so that the fuzzer gets past them; bit 1: a good preface is put before.
 */
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "transfer/frame.h"

#define FUZZ_MAX_BYTES 65536

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static size_t max_bytes(uint8_t type)
{
	return type == 0 || type > 4 ? 0 : (size_t)FUZZ_MAX_BYTES >> (4 * (type - 1));
}

static void repair(uint8_t *p, size_t n)
{
	for (uint64_t number = 0; n >= FRAME_HEADER_BYTES; number++) {
		struct cursor c = cursor_over(p, n);
		size_t length = get_u32(&c);
		XXH3_state_t *x = XXH3_createState();
		uint32_t check;

		if (!x || length > n - FRAME_HEADER_BYTES) {
			XXH3_freeState(x);
			return;
		}
		XXH3_64bits_reset_withSeed(x, number);
		XXH3_64bits_update(x, p, 8);
		XXH3_64bits_update(x, p + FRAME_HEADER_BYTES, length);
		check = (uint32_t)XXH3_64bits_digest(x);
		XXH3_freeState(x);
		for (int i = 0; i < 4; i++)
			p[8 + i] = (uint8_t)(check >> (8 * i));
		p += FRAME_HEADER_BYTES + length;
		n -= FRAME_HEADER_BYTES + length;
	}
}

/* Read all that is there; what was handed out must be readable and within its type's limit. */
static int drain(struct frame_reader *r)
{
	const uint8_t *payload;
	volatile uint8_t sum = 0;
	uint8_t type;
	size_t n;
	int e;

	while ((e = frame_read(r, &type, &payload, &n)) == 0) {
		if (n > max_bytes(type) || !payload)
			abort();
		for (size_t i = 0; i < n; i++)
			sum ^= payload[i];
	}
	(void)sum;
	if (e > 0 && e != FRAME_MORE && e != FRAME_NOT_SYNCD && e != FRAME_VERSION)
		abort();
	return e;
}

static void run(const uint8_t *p, size_t n, uint8_t seed)
{
	struct frame_reader *r;
	uint32_t state = seed;

	if (frame_reader_new(&r, max_bytes) < 0)
		return;
	while (n > 0) {
		size_t piece;

		state = state * 1103515245 + 12345;
		piece = 1 + (state >> 16) % (seed < 128 ? 16 : 5000);
		if (piece > n)
			piece = n;
		if (frame_reader_feed(r, p, piece) < 0)
			abort(); /* it was read until it wanted more */
		drain(r);
		p += piece;
		n -= piece;
	}
	if (strlen(frame_reader_garbage(r)) > 4 * FRAME_GARBAGE_BYTES + 8)
		abort();
	frame_reader_free(r);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	struct buf b = BUF_INIT;

	if (n < 2)
		return 0;
	if (data[0] & 2)
		frame_put_preface(&b);
	put_bytes(&b, data + 2, n - 2);
	if ((data[0] & 1) && b.len > FRAME_PREFACE_BYTES)
		repair(b.data + FRAME_PREFACE_BYTES, b.len - FRAME_PREFACE_BYTES);
	if (b.len)
		run(b.data, b.len, data[1]);
	buf_deinit(&b);
	return 0;
}
