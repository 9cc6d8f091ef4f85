/*
 * transfer/recover_internal.h — what the parts of transfer/recover share:
 *
 *   recover.c           what became of each intent
 *   recover_staging.c   what is left in staging after that
 */
#ifndef TRANSFER_RECOVER_INTERNAL_H
#define TRANSFER_RECOVER_INTERNAL_H

#include "transfer/intent.h"
#include "transfer/place.h"
#include "transfer/recover.h"

enum verdict {
	NOT_DONE,     /* the index stays as it is */
	DONE,	      /* as if apply had gone on */
	DONE_EDITED,  /* new in place, and then changed by a user: `found` */
	DONE_DELETED, /* the new object was there, and a user deleted it */
	UNKNOWN,      /* can't be told now: the intent stays */
};

struct pending {
	uint64_t batch;
	uint32_t number;
	struct intent intent;
	struct row row;
	bool had_row;
	bool same_row; /* nobody wrote it since the intent was */
	bool in_staging; /* it could not be put in its place */
	struct pending *moved_to, *moved_from; /* the other half of a move */
	enum verdict verdict;
	struct place_outcome outcome;
	struct place_copy found; /* DONE_EDITED: state, stamp and nodes */
};

struct recovery {
	struct replica *replica;
	struct store *store;
	struct place place;
	struct pending *v; /* owned */
	size_t n, cap;
	bool first; /* under this index */
};

/* All but what intents that stay name, and what a transfer may go on with. */
int recover_empty_staging(struct recovery *v, int64_t now_ns);

#endif
