/*
 * tombstones/observe_internal.h — what observing is made of: observe.c (the run: batches, the budget, deletions in order),
 * observe_take.c (one observation, or absence, in a transaction). Nobody else includes it.
 */
#ifndef TOMBSTONES_OBSERVE_INTERNAL_H
#define TOMBSTONES_OBSERVE_INTERNAL_H

#include "tombstones/observe.h"

/* A copy of an observation. */
struct seen {
	enum scan_what what;
	char *path; /* owned */
	uint64_t seq;
	bool had_row, covers;
	struct record state;
	struct stamp stamp;
	int64_t looked_ns;
	struct chunk_tree_node *nodes; /* owned */
	size_t n_nodes;
	bool told; /* to be told after the commit, with error */
	int error;
};

struct seen_list {
	struct seen *v; /* owned */
	size_t n, cap;
	size_t bytes; /* of nodes */
	uint64_t content; /* bytes that were read */
};

struct gone {
	size_t path; /* offset into gone_list.text */
	uint64_t seq;
	bool had_row;
	int left; /* why it is left for now, which is told after the commit; 0: it is not */
};

struct tally {
	uint64_t created, changed, touched, deleted, restamped, raced, undone, waiting;
};

struct paths {
	char **v; /* owned */
	size_t n, cap;
};

/* What a run's observations are taken with; the lists are for the run to deal with, and to free. */
struct taking {
	struct replica *replica;
	const struct observe_result *result; /* the run's, until now */
	enum observe_local local; /* of this run */
	enum observe_local now;	  /* of the path that is being taken */
	bool whole;   /* everything is looked at */
	bool suspect;
	bool stuck;   /* something was left as it is that should not be */
	struct seen_list late; /* directories that became something else */
	struct paths aside;    /* directories moved aside: what was seen below is elsewhere now */
	struct paths emptied;  /* directories to be removed if they are empty: a user's, with what was undone in them */
};

/* --- observe_take.c: all in the run's transaction, under the writer lock --- */

/* What is to be told after the commit is noted in the observation. late: after the deletions; before, it may be moved to x->late. */
int observe_take(struct taking *x, struct replica_txn *t, struct seen *s, bool late, struct tally *tally);
/* A path that the index has is not on disk. What is below it comes before. */
int observe_take_gone(struct taking *x, struct replica_txn *t, const char *path, struct gone *g, struct tally *tally);
/* With the last live child, implied directories above go, if they are empty. */
int observe_drop_implied(struct replica_txn *t, struct store *store, const char *path);
/* Is the row still the one that was not found on disk? */
bool observe_is_deletion(const struct row *row, const struct gone *g);

#endif
