/*
 * transfer/stage_internal.h — what a stage is made of: stage.c (the object, the list of chunks, what a peer sends),
 * stage_reuse.c (what is here already), stage_verify.c (whether what is shared is what it should be). Nobody else includes it.
 */
#ifndef TRANSFER_STAGE_INTERNAL_H
#define TRANSFER_STAGE_INTERNAL_H

#include "base/pool.h"
#include "transfer/partial.h"
#include "transfer/place.h"
#include "transfer/stage.h"

#define STAGE_LARGE_BYTES (16u << 20) /* what is written and read of such a content leaves memory to others */
#define STAGE_NOT_OLD UINT64_MAX /* not found in the base */

struct stage_chunk {
	struct hash hash;
	uint64_t offset;
	uint64_t old; /* offset in the base, or STAGE_NOT_OLD */
	uint32_t length;
	bool zero;
	bool present;
	bool again; /* not the first of its group */
	bool there; /* its bytes are, shared with the base: not to be written */
	bool shared; /* just now: to be verified */
};

struct stage {
	struct replica *replica; /* not owned */
	struct store *store;	 /* the replica's */
	char *path;
	struct content content;
	uint16_t mode; /* to be made with */
	char name[PARTIAL_NAME_BYTES];
	bool partial; /* `name` is the content's: the object is locked, and what is in it outlives the stage */
	bool filled;  /* something is in it that did not come from here */
	uint64_t left_bytes; /* an earlier transfer left so much of it */
	int fd;	      /* the object; -1 after stage_finish */
	unsigned threads; /* that may be made to hash much */
	bool uncached; /* what is written does not stay in memory */
	bool linked;  /* the object is in staging under `name` */
	bool whole;   /* complete by a local copy */
	bool is_ready;
	struct place_ready ready; /* if it is */
	struct chunk_tree_node *nodes;
	size_t n_nodes, cap_nodes;
	struct stage_chunk *chunks; /* in file order; NULL before stage_chunks */
	uint32_t *order;	    /* numbers of chunks by (hash, number) */
	size_t n_chunks;
	size_t left;
	struct stage_missing *missing;
	size_t n_missing;
	/* The base, of which what is missing may be another version: the old version, or what has chunks in common with the new one. */
	char *base;	     /* its path; owned; NULL: there is none */
	bool based;	     /* chunks were found in it */
	uint64_t base_size;  /* as the index says */
	uint64_t base_source; /* of its row */
};

static inline enum hash_algorithm stage_algorithm(const struct stage *s)
{
	return store_algorithm(s->store);
}

static inline bool stage_large(const struct stage *s)
{
	return s->content.size >= STAGE_LARGE_BYTES;
}

/* --- stage.c --- */

/* Does the object, as it lies there, hold the content? STAGE_MISMATCH. Keeps its nodes: to be dropped after a failure. */
int stage_verify_object(struct stage *s);
void stage_drop_nodes(struct stage *s);
/* The first of the group if it is to be had and of this length, else NULL. */
const struct stage_chunk *stage_wanted(const struct stage *s, const struct hash *hash, uint64_t length);
/* Bytes that hash to this chunk, from that place of the base or from elsewhere, go to every place of its group. NULL: they are there. */
int stage_place(struct stage *s, const struct hash *hash, const uint8_t *bytes, size_t n, uint64_t old);
bool stage_all_there(const struct stage *s, const struct hash *hash); /* at every place of its group */
/* Zeros that a tree would have marked: no chunk of this content. */
bool stage_unmarked_zeros(const struct stage *s, const uint8_t *bytes, size_t n);

/* --- stage_reuse.c: files that can't be used are passed over; < 0 is ours --- */

/* Threads to hash so many bytes of what is here; NULL: it is not worth it, or they can't be had. */
struct pool *stage_pool(const struct stage *s, uint64_t bytes);

/* A file of equal content, into the empty object. STAGE_COMPLETE, or 0: there is none, and the object is empty. */
int stage_look_for_whole(struct stage *s);
/* Once the chunks are known, in this order: what the object has in it; the old version of the path, which becomes the base; other
 * files, one of which becomes it where nothing was found in the old version. 0. */
int stage_take_left(struct stage *s);
int stage_take_from_old(struct stage *s);
int stage_take_from_others(struct stage *s, struct reuse *reuse);

/* --- stage_verify.c --- */

/* A read lease on a file that is shared with: from before that until it was read, or somebody waits to write to the file. */
struct stage_lease {
	int fd; /* not owned */
	bool held;
};

void stage_lease_take(struct stage_lease *l, const struct stage *s, int fd); /* not held where it can't be had */
/* Has nobody been able to write to the file since it was taken? Given up as soon as somebody waits for that. */
bool stage_lease_holds(struct stage_lease *l);
void stage_lease_end(struct stage_lease *l);

/* The chunk's bytes in a file that has them at its offset. 0, STAGE_MISMATCH, or < 0. */
int stage_read_chunk(const struct stage *s, int fd, const struct stage_chunk *c, uint8_t *buffer);
/* What is `shared` is read, from the lease's file for as long as it holds, then from the object, and hashed; all of it is present if all
 * of it is what it should be. 0, or as stage_read_chunk. Memory: a chunk for each thread. */
int stage_verify_shared(struct stage *s, struct stage_lease *lease);

#endif
