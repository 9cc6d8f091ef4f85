/*
 * tombstones/observe.h — turn what a scan saw into events. DESIGN §3 "What is not on disk is not deleted", §7, §8 interlocks.
 *
 * Observations are collected and committed in batches (OBSERVE_BATCH rows), with a pool in scan_options while the walk goes on.
 * A row that changed since it was looked at (sequence differs) is left to the next look. An edit descends from the materialised version only: what stands where a
 * row is not on disk (ignored, unsupported) is an independent version: equal content makes the row ROW_ON_DISK; other
 * content is moved aside as a conflict copy, and the row is forgotten, to be fetched again. Deletions are made last, deepest
 * first, and only if the scan was complete and the root is still ours; beyond the budget they are held.
 * A directory that became something else is taken up with the deletions, after what was below it, or held with them.
 * In a suspect replica (copied, restored) nothing is deleted: rows that are gone are dropped without a tombstone and K is
 * empty anyway; what differs is an event that descends from nothing. A complete look without errors ends the suspicion.
 * Where a row must be forgotten and K has no room for an exception, all is left as it is, and told with -ENOSPC.
 *
 * In a folder that takes only and undoes local changes (OBSERVE_UNDO) nothing becomes an event: files and symlinks go to trash
 * and their rows are forgotten, to be fetched again; deleted ones are forgotten, too; what was renamed is renamed back; mode,
 * owner and mtime are set again; directories that a user made are removed once they are empty. The budget holds for deletions
 * as ever. OBSERVE_LEAVE does not even that, while nobody is there to fetch from. Both are OBSERVE_RECORD in a replica that has
 * not met anyone, or is suspect: what differs from a peer is then undone by the session, which knows what the peer has.
 */
#ifndef TOMBSTONES_OBSERVE_H
#define TOMBSTONES_OBSERVE_H

#include "merkle/scan.h"
#include "tombstones/replica.h"

/* Rows that are committed at once. Contents and inodes are keyed in an order that has nothing to do with that of paths: a commit
 * writes nearly a page of 4 KiB for each row that is alone in its page, so that few large ones write less than many small ones. */
#define OBSERVE_BATCH 4000
#define OBSERVE_BUDGET_MIN 100	   /* deletions that never need confirming */
#define OBSERVE_BUDGET_PERCENT 20  /* of the live entries, overall or of a top-level subtree */

enum observe_local {
	OBSERVE_RECORD, /* what a user did becomes events */
	OBSERVE_UNDO,	/* … is taken back */
	OBSERVE_LEAVE,	/* … is told, and stays for now */
};

/* In place of an error that is told: */
#define OBSERVE_LOCAL 1000	/* a local change, left there for now */
#define OBSERVE_UNFINISHED 1001 /* left there until recovery has finished a change (replica_unfinished) */
#define OBSERVE_COVERS 1002	/* it was a directory, and what was in it could not be looked at, or is left for now */

struct observe_options {
	struct replica *replica;
	enum observe_local local;
	bool confirmed;	   /* a person confirmed the deletions that were held */
	uint64_t recent;   /* deletions recorded a short while ago: they count for the budget, too */
	/* Told once per path that is not in sync because of what was seen: left out, unsettled, error; SCAN_NEW with error 0:
	 * the object was moved aside as a conflict copy, else it is in the way of the row's version and could not be moved.
	 * Without the writer lock held. */
	void (*tell)(const char *path, enum scan_what what, int error, void *data);
	void *tell_data;
};

struct observe_result {
	uint64_t events;	/* made and committed */
	uint64_t created, changed, touched, deleted, restamped;
	uint64_t counted;	/* of the deleted: those that count for the budget, since their content is not elsewhere */
	uint64_t held;		/* deletions held until confirmed: all of this look; nothing of them was recorded */
	char held_at[256];	/* "" = overall, else the top-level subtree whose budget it was */
	uint64_t raced;		/* rows that changed meanwhile: look again */
	uint64_t unsettled;	/* look again later */
	uint64_t undone;	/* local changes taken back: rows may have been dropped */
	uint64_t waiting;	/* to be undone, but K has no room to forget more before a round */
	struct scan_counts scan;
};

/* A path to look at; shallow and rehash_before_ns as in scan_options. */
struct observe_path {
	const char *path;
	bool shallow;
	int64_t rehash_before_ns;
};

/* Scan the paths one after the other ({.path = ""}: everything) and observe what is seen as one look, with one budget.
 * scan->store must be the replica's; its subtree, shallow and rehash_before_ns are set here. Paths may overlap: what was seen first of a path
 * counts. Takes the writer lock per batch. STORE_ROOT_CHANGED: nothing was concluded from absences. After a failure *ret
 * says what was committed until then. */
int observe_run(const struct observe_options *options, const struct scan_options *scan, const struct observe_path *paths,
	size_t n, void (*directory)(int dirfd, const char *path, void *data), void *directory_data, struct observe_result *ret);

/* The deletion interlock, also used by apply for what a peer deletes: would `n` deletions of the `live` entries
 * need confirming? */
bool observe_over_budget(uint64_t n, uint64_t live);

#endif
