/*
 * transfer/reuse.h — which of a replica's files may hold a chunk: a bounded table in memory, keyed by XXH3.
 *
 * From a chunk's name to the name of the root of a file's tree that has it; both are hints. Whoever follows one finds the file by
 * the index (index_by_root), walks its tree, and hashes what stands there before it is anything.
 *
 * A session has one, for as long as it lasts. Nothing is built before REUSE_BYTES_MIN of content had to be asked for; then the index's
 * chunk-tree nodes are read, not its rows: small files cost nothing. Later looks add the trees that rows took up
 * since. Beyond REUSE_ENTRIES_MAX entries, only chunks whose names end a certain way are kept, half of them each time: one that is
 * found leads to a whole file, so that in the end a long part in common is enough.
 *
 * Memory: 16 bytes an entry, 1 MiB at most (twice that for a moment). Time: about 20 µs for each node read (64 chunks, 2 MiB of
 * content or more), of which REUSE_NODES_MAX are at most; afterwards nothing but for what is new. Not thread-safe.
 */
#ifndef TRANSFER_REUSE_H
#define TRANSFER_REUSE_H

#include "tombstones/replica.h"

#define REUSE_BYTES_MIN (1 << 20)    /* less is asked for without a look */
#define REUSE_ENTRIES_MAX (1 << 16)
#define REUSE_NODES_MAX (1 << 16)    /* 128 GiB of files of up to 2 GiB, 4 TiB of larger ones */
#define REUSE_NODE_BYTES (16 * 1024) /* all is read again only after so much had to be asked for, for each node */

struct reuse;

enum reuse_outcome { REUSE_NOT_YET = 1 };

int reuse_new(struct reuse **ret);
void reuse_free(struct reuse *u);
/* So many bytes would have to be asked for: be up to date. REUSE_NOT_YET: it is not worth it, or can't be done. */
int reuse_prepare(struct reuse *u, struct replica *r, uint64_t missing_bytes);
/* A root's name, for index_by_root. */
bool reuse_look(const struct reuse *u, const struct hash *chunk, uint64_t *ret_root);

#endif
