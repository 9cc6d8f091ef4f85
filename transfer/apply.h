/*
 * transfer/apply.h — put decided versions in place on disk, and recover after a crash. DESIGN §8.
 *
 * A batch runs on one worker thread under the replica's writer lock:
 *
 *   T1  one write transaction: the decision for each item, on our record and K of this moment; what will be put in place
 *       gets owner, mode and times in staging, and is fsynced (many: syncfs); an intent for each change of the disk (path,
 *       both objects' inode and generation, staging names, the record to be); durable commit
 *   disk  per item, under held directory descriptors: exchange (or rename no-replace for new names), look at what came out,
 *       trash or put aside; then the directories are fsynced
 *   T2  one write transaction: rows with records and stamps, conflict copies' and deletions' events, intents dropped; durable
 *
 * An object on disk is replaced or removed only if it is what the index says (stamp; content where the stamp can't tell) and
 * nobody has it open for writing; whatever else comes out of an exchange is a user's: it is kept as a conflict copy, as a new
 * event, never exchanged back. Nothing is overwritten, unlinked or followed through a symlink.
 *
 * What was moved on the far side is moved here (move_from): the object itself goes through staging from the one path to the other,
 * if it is exactly what the index says, under a lease that shows that nobody writes to it, has one name only, and is not to be changed in
 * anything. Its content is believed as a scan believes it (inode, size, times; hashed where those can't tell), and goes to no trash.
 *
 * A directory that is not there on the way to an item is made (implied; 0700, or as the root where its record is a
 * tombstone) and becomes a ROW_IMPLIED row where it has no live record; a directory whose record goes while something is
 * left inside stays as ROW_IMPLIED; implied ones go when their last live child goes, if they are then empty. A live
 * non-directory with live children (after the batch's decisions) is copied aside and becomes a tombstone.
 */
#ifndef TRANSFER_APPLY_H
#define TRANSFER_APPLY_H

#include "merkle/scan.h"
#include "tombstones/replica.h"

struct place_ready;

enum apply_result {
	APPLY_NONE,	     /* nothing was to be done */
	APPLY_DONE,
	APPLY_WAIT,	     /* the peer must act first (conflict won here): an exception */
	APPLY_NEEDS_CONTENT, /* the decision needs content that was not staged, and that could not be moved: stage it and give
				the item again; or a deletion that waits for such a one */
	APPLY_CHANGED,	     /* a user changed the path meanwhile: scan it, then decide again: an exception */
	APPLY_BUSY,	     /* open for writing: an exception until it settles */
	APPLY_BLOCKED,	     /* a directory that must become something else, or go, still has undecided or foreign content */
	APPLY_FAILED,	     /* error says why; an exception */
	APPLY_NOT_HELD,	     /* recorded, but not on this disk (ignored, unsupported kind, name collides); told, no exception */
	APPLY_HELD,	     /* a deletion that needs a person's confirmation: never from here, the session holds a round's deletions */
};

struct apply_item {
	/* in */
	const char *path;
	const struct record *theirs;	       /* NULL: absent, proven */
	const struct version_vector *their_k;  /* the peer's K of this path */
	const char *staged;		       /* name in store_staging() of content already verified to be theirs->content; or NULL */
	const struct place_ready *ready;       /* what was done to it there already (transfer/place.h); or NULL */
	const struct chunk_tree_node *nodes;   /* its chunk tree, if its height is > 0; else NULL */
	size_t n_nodes;
	const char *move_from;		       /* or, NULL: the object here, deleted in the same batch, is this content: move it */
	/* out */
	enum apply_result result;
	int error;			       /* FAILED: negative errno or enum file_outcome */
	bool privileges_cleared;
	bool conflict;			       /* a conflict copy was made */
	bool consumed;			       /* the staged object was put in place (else the caller removes it) */
};

struct apply_options {
	struct replica *replica;
	const struct ignore *ignore;	       /* NULL: nothing is ignored */
	bool taker_loses;		       /* the peer only sends */
	uint64_t revert;		       /* what this replica (its id) alone wrote gives way to the peer's; 0: no */
	const struct decide_policy *policy;    /* NULL: keep-both */
	const struct knowledge *their_knowledge; /* as the peer told it before any of the items; NULL: it did not */
	uint64_t source;		       /* the peer's replica id: rows taken unchanged name it */
	int64_t grace_ns;		       /* before a tombstone may be dropped on the peer's absence */
	bool preserve_owner;		       /* we may chown (root) and want to */
	/* Rows, conflict copies, deletions that came out of this batch, for status and log; NULL: none. */
	void (*tell)(const char *path, enum decide_action action, enum apply_result result, void *data);
	void *tell_data;
};

/*
 * What decide would do now, and whether content must be staged first, without changing anything: in a read transaction.
 * *ret_content: the item's content has to be staged (a live file whose bytes are not at the path already). *ret_differs: this
 * side will show another thing than the peer there, all the same. *ret_ours: our row, empty where there is none; the caller's, also on
 * failure.
 */
int apply_preview(struct index_txn *t, const struct knowledge *k, const struct apply_options *options,
	const struct apply_item *item, struct row *ret_ours, enum decide_action *ret_action, bool *ret_content, bool *ret_differs);

/* Takes the writer lock. Items are applied in an order that is safe (kind changes and deletions deepest first, creations
 * shallow first), whatever order they come in; a path stands in a batch at most once.
 * < 0: the whole batch failed (full disk, index error): no item was acknowledged (each is FAILED, and `consumed` if it was
 * staged: an intent may name it); what was done on disk is finished or undone by apply_recover, which the caller must run
 * before going on. -EAGAIN: an object came out, and could not be looked at or moved on (full disk). Under a policy other than
 * keep-both the loser goes to trash, unless it lost because the peer only sends. */
int apply_batch(const struct apply_options *options, struct apply_item *items, size_t n);

/* After opening a replica and after a failed batch: finish or undo what intents name, then empty the staging directory, but for
 * what a transfer that was cut may go on with (transfer/partial.h; the
 * first time under an index: what is in it goes to trash, as nobody knows what it is). Takes the writer lock. What can't be
 * looked at keeps its intent; it is no event meanwhile (replica_unfinished), and nothing is put there. ret_settled: how many intents
 * were finished or undone; may be NULL. -ESTALE (of apply_batch, too): the root is another one now. */
int apply_recover(struct replica *r, uint64_t *ret_settled);

const char *apply_result_name(enum apply_result result);

#endif
