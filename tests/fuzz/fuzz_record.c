/*
 * tests/fuzz/fuzz_record.c — hostile bytes to the codecs of what is kept in the index and travels in messages.
 *
 * Input: u8 which of them, then the bytes. What is accepted must have one encoding (the one that came), and its copy be equal.
 */
#include <stdlib.h>
#include <string.h>

#include "merkle/record.h"
#include "tombstones/knowledge.h"
#include "tombstones/members.h"
#include "transfer/intent.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static void record(struct cursor *c, struct buf *again)
{
	struct record r = {0}, copy = {0};
	struct hash h;

	record_get(c, &r);
	if (cursor_finish(c) == 0) {
		record_put(again, &r);
		if (record_copy(&copy, &r) < 0 || !record_equal(&r, &copy) || record_hash(HASH_XXH3, "a", &r, &h) < 0)
			abort();
	}
	record_deinit(&copy);
	record_deinit(&r);
}

static void row(struct cursor *c, struct buf *again)
{
	struct row r = {0}, copy = {0};

	row_get(c, &r);
	if (cursor_finish(c) == 0) {
		row_put(again, &r);
		if (row_copy(&copy, &r) < 0 || !stamp_equal(&r.stamp, &copy.stamp))
			abort();
	}
	row_deinit(&copy);
	row_deinit(&r);
}

static void knowledge(struct cursor *c, struct buf *again)
{
	struct knowledge k = {0}, copy = {0};

	knowledge_get(c, &k);
	if (cursor_finish(c) == 0) {
		knowledge_put(again, &k);
		if (knowledge_copy(&copy, &k) < 0 || !knowledge_equal(&copy, &k))
			abort();
		for (size_t i = 0; i < k.n; i++)
			if (knowledge_of(&k, k.exceptions[i].path) != &k.exceptions[i].vector)
				abort();
	}
	knowledge_deinit(&copy);
	knowledge_deinit(&k);
}

static void members(struct cursor *c, struct buf *again)
{
	struct members m = {0};

	members_get(c, &m);
	if (cursor_finish(c) == 0) {
		members_put(again, &m);
		for (size_t i = 0; i < m.n; i++)
			if (members_find(&m, m.v[i].replica) != &m.v[i])
				abort();
	}
	members_deinit(&m);
}

static void intent(struct cursor *c, struct buf *again)
{
	struct intent i = {0};

	intent_get(c, &i);
	if (cursor_finish(c) == 0)
		intent_put(again, &i);
	intent_deinit(&i);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	static void (*const codecs[])(struct cursor *c, struct buf *again) = {record, row, knowledge, members, intent};
	struct buf again = BUF_INIT;
	struct cursor c;

	if (n < 1)
		return 0;
	c = cursor_over(data + 1, n - 1);
	codecs[data[0] % (sizeof(codecs) / sizeof(*codecs))](&c, &again);
	if (buf_error(&again) < 0)
		abort();
	if (cursor_finish(&c) == 0 && (again.len != n - 1 || (n > 1 && memcmp(again.data, data + 1, n - 1) != 0)))
		abort();
	buf_deinit(&again);
	return 0;
}
