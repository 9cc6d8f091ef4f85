/*
 * tombstones/places.h — addresses at which this replica met another: where nothing is found later, nothing is to be made without
 * being asked, since a disk may not be mounted; and what it was shown there, so that the next meeting may begin with what is new.
 * A small table kept as one meta row; it decides nothing else.
 */
#ifndef TOMBSTONES_PLACES_H
#define TOMBSTONES_PLACES_H

#include "merkle/index.h"

#define PLACES_MAX 1024		    /* beyond it the one not seen for longest is forgotten */
#define PLACE_BYTES_MAX (8 * 1024) /* of an address; longer ones are not remembered */

struct place_met {
	char *address;	  /* as people write it; owned */
	uint64_t replica; /* met there last */
	int64_t seen_ns;  /* wall clock */
	uint64_t seq;	  /* of the index's list of changes: up to it all was compared with that one; 0: unknown */
};

struct places {
	struct place_met *v; /* in the order of meeting; owned */
	size_t n, cap;
};

void places_deinit(struct places *p);
const struct place_met *places_find(const struct places *p, const char *address); /* or NULL */
int places_note(struct places *p, const char *address, uint64_t replica, int64_t now_ns, uint64_t seq);

int places_read(struct index_txn *t, struct places *ret); /* ret must be empty */
int places_write(struct index_txn *w, const struct places *p);

#endif
