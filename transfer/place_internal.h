/*
 * transfer/place_internal.h — what carrying out an intent is made of: place.c (objects come, go, and are looked at),
 * place_set.c (they get their attributes, in staging and in place). Nobody else includes it.
 */
#ifndef TRANSFER_PLACE_INTERNAL_H
#define TRANSFER_PLACE_INTERNAL_H

#include "transfer/place.h"

#define SPECIAL_BITS 06000 /* setuid, setgid: who gets them is decided where attributes are set */

/* --- place.c --- */

void place_result(struct place_outcome *o, enum apply_result r);
void place_failed(struct place_outcome *o, int r); /* a file outcome or errno that nobody foresaw */
void place_touch_also(struct place *p, int fd); /* as place_touch, but the caller keeps fd */

struct held {
	int fd;	     /* of a regular file that we may read, else -1 */
	bool leased; /* nobody writes to it until the lease is released */
	bool racy;   /* the stamp alone proves nothing */
	uint8_t kind;
	struct stamp stamp;
};

/* Is dir/name exactly what the row says, and open for writing by nobody? Else *o says what. *h: to be deinitialised in any
 * case. */
bool place_hold(struct place *p, int dir, const char *name, const struct row *ours, struct held *h, struct place_outcome *o);
/* The lease, if there is one, is over; true if somebody opened the file for writing meanwhile, and waited. */
bool held_release(struct held *h);
void held_deinit(struct held *h); /* ends the lease */

/* --- place_set.c --- */

/* INTENT_SET. verified: it is known to be what the row says, but for its attributes. */
void place_set_object(struct place *p, const struct intent *i, const struct row *ours, bool verified, int dir, const char *name,
	struct place_outcome *o);

#endif
