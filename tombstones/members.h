/*
 * tombstones/members.h — who takes part in a folder: replica id → name, knowledge last acknowledged, when seen, retired.
 * Used for purging and for showing; never for deciding what wins. A small table kept as one meta row.
 */
#ifndef TOMBSTONES_MEMBERS_H
#define TOMBSTONES_MEMBERS_H

#include "merkle/version.h"

#define MEMBERS_MAX 1024
#define MEMBER_NAME_BYTES_MAX 255

struct member {
	uint64_t replica;
	char *name;		  /* what it calls itself (host name); owned; for people */
	struct version_vector k;  /* its K as it last told (without exceptions' paths: their minimum is not needed, see purge) */
	bool excepted;		  /* it had exceptions then: covers nothing */
	int64_t seen_ns;	  /* wall clock of the last completed session */
	bool retired;
};

struct members {
	struct member *v; /* sorted by replica; owned */
	size_t n, cap;
};

void members_deinit(struct members *m);
struct member *members_find(struct members *m, uint64_t replica);	/* or NULL */
int members_add(struct members *m, uint64_t replica, struct member **ret); /* finds or adds; -ENOSPC */
void members_put(struct buf *b, const struct members *m);
void members_get(struct cursor *c, struct members *ret);

#endif
