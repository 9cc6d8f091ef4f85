/*
 * merkle/chunk_tree.h — the Merkle tree over one file's chunks; its shape depends on content only.
 *
 *   level 0   the chunks themselves: hash = H(bytes)
 *   level 1+  nodes: a node's payload is its children's entries; hash = H("syncd node" ‖ level ‖ payload)
 *
 * Entry: hash (32 bytes), length (varint, bytes of file below it), flag byte (1 = all zero). A node ends after
 * an entry whose hash's first 8 bytes, read as a little-endian number, have 6 trailing zero bits, unless that is its
 * first entry (so that no contrived content makes a tree that does not narrow), or at 256 entries;
 * the last node of a level ends with the file. Levels are added until one hash is left: the root. `height` is its
 * level: 0 when the file is one chunk, so that a small file's root is the plain hash of its content.
 * An edit changes one node a level: O(log n) nodes differ.
 */
#ifndef MERKLE_CHUNK_TREE_H
#define MERKLE_CHUNK_TREE_H

#include "base/buf.h"
#include "merkle/chunker.h"

#define CHUNK_TREE_FANOUT_MAX 256
#define CHUNK_TREE_HEIGHT_MAX 8
#define CHUNK_TREE_NODE_BYTES_MAX (CHUNK_TREE_FANOUT_MAX * (HASH_BYTES + 10 + 1))

/* What names a file's bytes: equal contents compare equal in all fields. */
struct content {
	struct hash root;
	uint64_t size;	    /* bytes */
	uint8_t chunk_bits; /* the chunker's parameter; 0 for what is not a file */
	uint8_t height;	    /* level of the root */
};

bool content_equal(const struct content *a, const struct content *b);

struct chunk_tree_entry {
	struct hash hash;
	uint64_t length; /* bytes of the file below this entry */
	bool zero;
};

/* Called for each finished node, children before parents. The payload is valid during the call. Non-zero stops. */
typedef int chunk_tree_emit(const struct hash *hash, uint8_t level, const void *payload, size_t n, void *data);

/* Built by adding chunks in order. Memory: O(height × fan-out). */
struct chunk_tree_builder;
int chunk_tree_builder_new(struct chunk_tree_builder **ret, enum hash_algorithm algorithm, chunk_tree_emit *emit,
	void *data);
void chunk_tree_builder_free(struct chunk_tree_builder *b);
int chunk_tree_builder_add(struct chunk_tree_builder *b, const struct chunk *chunk);
/* Ends the tree. ret->chunk_bits is the caller's to set. At least one chunk must have been added. -EFBIG (from add, too):
 * higher than CHUNK_TREE_HEIGHT_MAX, which takes contrived hashes. */
int chunk_tree_builder_finish(struct chunk_tree_builder *b, struct content *ret);

/* Chunk and hash a whole open file: chunker_run_file + builder. emit may be NULL. CHUNKER_CHANGED. */
int chunk_tree_of(const struct chunker_file *file, chunk_tree_emit *emit, void *data, struct content *ret);

/* Decode and check a node's payload: hash, entry count 1…256, boundaries, lengths > 0 and no overflow. -EBADMSG.
 * *ret is heap, *ret_n entries. */
int chunk_tree_decode(enum hash_algorithm algorithm, const struct hash *hash, uint8_t level, const void *payload,
	size_t n, struct chunk_tree_entry **ret, size_t *ret_n);
/* Length of the first entry of a payload, n > 0; n where it is no whole one. */
size_t chunk_tree_entry_bytes(const uint8_t *payload, size_t n);

#endif
