/*
 * transfer/stage.h — build one file's content in `.syncd/staging`, from what is here and from chunks that a peer sends.
 *
 * Made by a plan, then fed chunks; every byte that goes in is hashed against the chunk tree whose root was announced (P8).
 * Not thread-safe: one job at a time works on a stage; any thread may, in turn. No read transaction is open between calls.
 * Memory: O(chunks) between calls, and CHUNK_BYTES_MAX within stage_chunks, or 8 MiB, or as much as a longest chunk for each of its threads. One
 * descriptor until stage_finish. The object is its owner's to read and write, and hidden by the directory that it is in. After a negative errno (a full disk: -ENOSPC, -EDQUOT) only stage_free is left to call, but that stage_write may
 * be repeated.
 *
 *   stage_begin      looks for the content here: files of equal content (index_by_content) are cloned or copied and verified
 *                    (stage_chunks then goes on with what a transfer that was cut left of it)
 *   stage_chunks     (else) takes the list of chunks; those found in the old version of the path, or in other files (transfer/reuse.h),
 *                    are copied (shared, where the file system can and they stand where they stood) and verified, zero chunks become
 *                    holes, the rest is `missing` (a chunk that occurs more than once only at its first place)
 *   stage_write      one missing chunk's bytes: hash checked, written
 *   stage_finish     all there: truncates to size, makes it ready to be put in place; the object stays in staging under stage_name()
 */
#ifndef TRANSFER_STAGE_H
#define TRANSFER_STAGE_H

#include "merkle/scan.h"
#include "tombstones/replica.h"
#include "transfer/reuse.h"

struct place_ready; /* transfer/place.h */
struct stage;

struct stage_missing {
	uint64_t offset;
	uint32_t length;
	uint32_t chunk; /* its number, for stage_write */
	uint64_t old_from, old_to; /* where in the base it may have been; equal: nowhere */
};

enum stage_outcome {
	STAGE_COMPLETE = 1, /* everything is here already */
	STAGE_MISMATCH,	    /* bytes do not hash to what was announced: thrown away */
};

/* path: where the content is to go (its present file, if any, is the old version). STAGE_COMPLETE: a local file of equal
 * content was used, or it is empty: stage_finish is all that is left. -EBADMSG: no content that a file can have, or
 * cut finer than a file of that size is; -EINVAL:
 * no path. mode: that it is going to have, for the object to be made with. threads: that may be made, and are ended again, where much of
 * what is here is to be hashed; 0: all is done in turn by who calls. bulk: much else comes with it, of which memory should not be
 * full afterwards (a large content never stays in it). *ret is set also with STAGE_COMPLETE. O(size) if a local file of
 * equal content is there. */
int stage_begin(struct stage **ret, struct replica *r, const char *path, const struct content *content, uint16_t mode, unsigned threads, bool bulk);
/* Removes the staged object unless it was taken (stage_taken). What a peer sent of a large content, and is still wanted, is left
 * to the next stage of that content (transfer/partial.h), which hashes it. */
void stage_free(struct stage *s);
void stage_unwanted(struct stage *s); /* nobody wants the content any more */

/* entries: the level-0 entries of the whole file, in order (for height 0: the one chunk). Checked (-EBADMSG): their lengths add
 * up to the size, each is one that the chunker makes, zero ones hash like zeros, and their tree has the announced root.
 * Once per stage. STAGE_COMPLETE: nothing is missing. O(size of the old version, at most 16 times the new one's and 64 MiB)
 * where it must be re-cut, else O(chunks found), and O(the trees of other contents that are tried). Files are read as they are now: what
 * does not hash to what is looked for is not there. reuse: where to look for others; NULL: nowhere. */
int stage_chunks(struct stage *s, const struct chunk_tree_entry *entries, size_t n, struct reuse *reuse);
/* The missing chunks in ascending order; valid until stage_free. ret_n: NULL where it is known. */
const struct stage_missing *stage_missing(const struct stage *s, size_t *ret_n);
/* The base, that is the old version or, if nothing was found in it, another file: to be read between old_from and old_to, as what it is
 * now, which may be anything. 0, or anything else. */
int stage_open_base(const struct stage *s, int *ret_fd);
/* The replica that the base's record was taken from unchanged; 0: none. */
uint64_t stage_base_source(const struct stage *s);
/* What is still to be written, at all the places where a missing chunk stands: few hashes may stand for very many bytes. */
uint64_t stage_missing_bytes(const struct stage *s);
/* STAGE_MISMATCH; STAGE_COMPLETE when it was the last. A chunk that is not missing (any more) is -EINVAL. -EBADMSG: the bytes
 * are as announced, but zeros that were not announced as such: no file has this tree. */
int stage_write(struct stage *s, uint32_t chunk, const void *bytes, size_t n);
/* -EINVAL: something is missing; -ESTALE: the object was removed from staging meanwhile. Closes the descriptor; nothing is
 * fsynced here. as: what it is going to be put in place as, most likely: it gets its attributes now; NULL: it is not known. */
int stage_finish(struct stage *s, const struct record *as, bool preserve_owner);

const char *stage_name(const struct stage *s); /* in store_staging() */
const struct place_ready *stage_ready(const struct stage *s); /* NULL: it was not made ready */
/* The chunk tree's nodes (height > 0), children before parents, for the index; owned by the stage. Complete after
 * STAGE_COMPLETE of stage_begin, or after stage_chunks. */
const struct chunk_tree_node *stage_nodes(const struct stage *s, size_t *ret_n);
void stage_taken(struct stage *s); /* the object is not in staging any more */

#endif
