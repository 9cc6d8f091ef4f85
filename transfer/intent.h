/*
 * transfer/intent.h — what apply is about to do to one path on disk, written down durably before it is done.
 *
 * With an intent, and what is found on disk, transfer/recover can tell whether the change was made, finish it, and record
 * it, however the process ended. Every object that comes out of the tree passes through staging under the name
 * `displaced`, so that staging and the path are the only places to look at.
 *
 *   PUT        staged → path (exchange with what is there, or no-replace); what was there goes where `fate` says
 *   PUT_ASIDE  staged → aside; at `path` a directory with live children stays
 *   REMOVE     path → displaced, then where `fate` says; a directory is removed if it is empty
 *              (MOVED: path → displaced = staged → path of a PUT, nothing of it copied; both are done or neither)
 *   SET        attributes and mtime of the object in place
 *   RECORD     nothing on disk (never written down)
 */
#ifndef TRANSFER_INTENT_H
#define TRANSFER_INTENT_H

#include "merkle/record.h"

enum intent_op { /* values are part of the index format */
	INTENT_RECORD = 0,
	INTENT_PUT = 1,
	INTENT_PUT_ASIDE = 2,
	INTENT_REMOVE = 3,
	INTENT_SET = 4,
};

enum intent_fate { /* of the object that was there */
	INTENT_NO_OLD = 0, /* there is none */
	INTENT_TRASH = 1,
	INTENT_ASIDE = 2, /* to the conflict name, as an event */
	INTENT_RMDIR = 3, /* a directory, empty by then */
	INTENT_MOVED = 4, /* REMOVE: the PUT of the same batch whose `staged` is this one's `displaced` puts it in its place */
};

enum intent_becomes { /* of the path's record */
	INTENT_TAKEN = 1,     /* `record` */
	INTENT_DELETED = 2,   /* a new event, a deletion that descends from `record` */
	INTENT_UNCHANGED = 3, /* stays; only the place changes (an implied directory) */
};

#define INTENT_BYTES_MAX (RECORD_BYTES_MAX + 16384)

struct intent {
	uint8_t op, fate, becomes;
	uint8_t place;		 /* enum row_place of the row to be */
	char *path;		 /* owned, as all strings here */
	char *aside;		 /* conflict name (a path); NULL: none */
	bool aside_there;	 /* the conflict name holds the content already: only the event is made */
	bool preserve_owner;
	bool verified;		 /* what is in staging as `displaced` was found to be what the row said */
	char *staged;		 /* PUT, PUT_ASIDE: the new object's name in staging */
	char *displaced;	 /* what comes out: its name in staging (== staged where the two are exchanged); NULL: none */
	uint8_t new_kind;	 /* enum record_kind of the staged object */
	struct stamp staged_stamp; /* of it, as it will be put in place */
	uint8_t old_kind;
	struct stamp old;	 /* of what is there, by the index; zero if nothing */
	bool had_row;
	uint64_t seq;		 /* the row's sequence when this was written */
	bool has_record;
	struct record record;
	uint64_t source;	 /* row.source to be */
};

void intent_deinit(struct intent *i); /* and zero it */
void intent_put(struct buf *b, const struct intent *i);
/* Checks values, lengths, paths and names. ret must be zero; fails the cursor, ret is deinit-able either way. */
void intent_get(struct cursor *c, struct intent *ret);

#endif
