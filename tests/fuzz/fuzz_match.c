/*
 * tests/fuzz/fuzz_match.c — hostile versions of records that are equal but for these.
 *
 * Input: u8 incarnations in the table, each u64; the rest is versions, of files and directories by turns. What is accepted is a
 * record that may be, and comes out again as it was told.
 */
#include <stdlib.h>
#include <string.h>

#include "merkle/match.h"

#define RECORDS_MAX 100

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static void values(struct record *r, size_t i)
{
	*r = (struct record){.live = true, .kind = i & 1 ? RECORD_DIRECTORY : RECORD_FILE};
	r->content.chunk_bits = i & 1 ? 0 : CHUNK_BITS_MIN;
}

static void tell_again(struct record *v, size_t n)
{
	struct buf b = BUF_INIT;
	struct match_table table = {0};
	struct match_writer w = {.out = &b, .table = &table};
	struct match_reader r = {.table = &table};

	for (size_t i = 0; i < n; i++)
		match_add(&w, &v[i]);
	match_end(&w);
	if (buf_error(&b))
		abort();
	r.c = cursor_over(b.data, b.len);
	for (size_t i = 0; i < n; i++) {
		struct record again;

		values(&again, i);
		if (match_next(&r, &again) != 0 || !record_equal(&again, &v[i]))
			abort();
		record_deinit(&again);
	}
	if (match_finish(&r) != 0)
		abort();
	free(table.inc);
	buf_deinit(&b);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	struct cursor c = cursor_over(data, n);
	uint64_t inc[256];
	struct match_table table = {.inc = inc, .n = get_u8(&c)};
	struct match_reader r = {.table = &table};
	struct record v[RECORDS_MAX];
	size_t count = 0;

	for (size_t i = 0; i < table.n; i++)
		inc[i] = get_u64(&c);
	if (c.failed)
		return 0;
	r.c = c;
	while (count < RECORDS_MAX) {
		values(&v[count], count);
		if (match_next(&r, &v[count]) != 0) {
			record_deinit(&v[count]);
			break;
		}
		if (!record_valid(&v[count++]))
			abort();
	}
	(void)match_finish(&r);
	tell_again(v, count);
	while (count)
		record_deinit(&v[--count]);
	return 0;
}
