/*
 * tests/fuzz/fuzz_chunk_tree.c — hostile nodes of chunk trees.
 *
 * Input: u8 level, then the payload. It gets the hash that its parent would announce; what is accepted must have one encoding (the
 * one that came), and lengths that can be added up.
 */
#include <stdlib.h>
#include <string.h>

#include "merkle/chunk_tree.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static void hash_node(const uint8_t *data, size_t n, struct hash *ret)
{
	static const char prefix[] = "syncd node";
	struct hash_state *s;

	if (hash_state_new(&s, HASH_XXH3) < 0)
		abort();
	hash_state_update(s, prefix, strlen(prefix));
	hash_state_update(s, data, n);
	hash_state_finish(s, ret);
	hash_state_free(s);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	struct chunk_tree_entry *entries;
	struct buf again = BUF_INIT;
	uint64_t total = 0;
	struct hash hash;
	size_t count;

	if (n < 1)
		return 0;
	hash_node(data, n, &hash);
	if (chunk_tree_decode(HASH_XXH3, &hash, data[0], data + 1, n - 1, &entries, &count) < 0)
		return 0;
	if (!count || count > CHUNK_TREE_FANOUT_MAX)
		abort();
	for (size_t i = 0; i < count; i++) {
		if (!entries[i].length || __builtin_add_overflow(total, entries[i].length, &total))
			abort();
		put_bytes(&again, entries[i].hash.bytes, HASH_BYTES);
		put_varint(&again, entries[i].length);
		put_u8(&again, entries[i].zero);
	}
	if (again.len != n - 1 || memcmp(again.data, data + 1, n - 1) != 0)
		abort();
	hash.bytes[0] ^= 1;
	free(entries);
	if (chunk_tree_decode(HASH_XXH3, &hash, data[0], data + 1, n - 1, &entries, &count) == 0)
		abort();
	buf_deinit(&again);
	return 0;
}
