/*
 * tests/fuzz/fuzz_message.c — hostile payloads to the decoder of each message.
 *
 * Input: u8 type, then the payload. What is accepted must have one encoding: the one that came.
 */
#include <stdlib.h>
#include <string.h>

#include "transfer/message.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	struct buf again = BUF_INIT;
	union message m;

	if (n < 1 || message_decode(data[0], data + 1, n - 1, &m) < 0)
		return 0;
	if (message_encode(data[0], &m, &again) < 0 || again.len != n - 1)
		abort();
	if (again.len && memcmp(again.data, data + 1, again.len) != 0)
		abort();
	message_deinit(data[0], &m);
	buf_deinit(&again);
	return 0;
}
