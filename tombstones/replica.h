/*
 * tombstones/replica.h — one replica at work: its store, knowledge, lineage, incarnation, and the transactions in which
 * events happen. Everything that changes records goes through a replica_txn.
 *
 * Events (DESIGN §3): the first one after a start draws a new incarnation; counters are Lamport clocks and go on across
 * incarnations. An event raises K and every exception's vector.
 *
 * Threads: any thread may read (index_begin_read + replica_knowledge_read). Writers exclude each other by the writer lock,
 * which apply holds from its intents to its final commit, so that a scan never sees a half-done batch as an edit.
 */
#ifndef TOMBSTONES_REPLICA_H
#define TOMBSTONES_REPLICA_H

#include "merkle/store.h"
#include "tombstones/decide.h"
#include "tombstones/knowledge.h"
#include "tombstones/line.h"
#include "tombstones/members.h"

struct replica;

/* Takes the store over (also on failure). After a copied or restored root (store_copied, or a crash before its opening was
 * finished) K is emptied, the next incarnation has no parent (as a parent would say that K is known after all), and
 * replica_suspect() is true until a complete scan was observed. */
int replica_open(struct replica **ret, struct store *store);
void replica_close(struct replica *r); /* closes the store */

struct store *replica_store(const struct replica *r);
struct index *replica_index(const struct replica *r);
struct version_lineage *replica_lineage(const struct replica *r);
/* The index may not match the tree (copied): absences are not deletions, differences do not descend from the record. */
bool replica_suspect(const struct replica *r);
void replica_set_suspect(struct replica *r, bool suspect); /* durable with the next commit */

/* K as of a transaction of this index. ret must be empty. */
int replica_knowledge_read(struct index_txn *t, struct knowledge *ret);
int replica_members_read(struct index_txn *t, struct members *ret);
/* The open incarnation and its last counter; {0,0} before the first event since the start. */
struct version_dot replica_own(const struct replica *r);
/* End the incarnation: the next event draws a new one (another replica id …). */
void replica_end_incarnation(struct replica *r);
/* The same where a machine may have been put back while it runs, which loses its sessions and sets its clock right: at most once in
 * REPLICA_DOUBT_NS for each of the two, as an incarnation is remembered for ever, by all. */
#define REPLICA_DOUBT_NS (INT64_C(3600) * 1000000000)
enum replica_doubt { REPLICA_SESSION_LOST, REPLICA_CLOCK_JUMPED, REPLICA_DOUBTS };
void replica_doubt(struct replica *r, enum replica_doubt why, int64_t monotonic_ns);

/*
 * A peer told what it knows (K, or a record's vector; its lineage is stored already). 0: remembered as acknowledged, in memory, where a
 * snapshot of it takes it along. REPLICA_RESTORED: it names more of what was drawn since the start than was counted (see
 * tombstones/line.h): the incarnation is ended, and recording anew is due (8 times an hour at most: peers may lie).
 * Decide nothing with that peer: end the session.
 */
enum replica_heard { REPLICA_RESTORED = 1 };
int replica_hear(struct replica *r, uint64_t peer, const struct version_vector *v);
/* Is anew_run due? To be asked before K is told to anybody. */
bool replica_anew_due(const struct replica *r);

/* The writer lock; recursive use blocks for ever. Any thread may unlock it, so that work may be handed on. */
void replica_lock(struct replica *r);
void replica_unlock(struct replica *r);

/*
 * Paths where a change is half done, as recovery could not look at something there: what is on disk at, below or above them is
 * neither a user's doing nor known, so nothing of it becomes an event. In memory, as recovery runs at each opening.
 * Takes paths, and what it points to, over; they replace those of before. After a batch that failed it is so everywhere, until
 * recovery says where.
 */
void replica_set_unfinished(struct replica *r, char **paths, size_t n);
void replica_all_unfinished(struct replica *r);
bool replica_unfinished(struct replica *r, const char *path); /* path "": any at all */

/* A write transaction with K loaded; the writer lock must be held by the caller. */
struct replica_txn {
	struct replica *replica;
	struct index_txn *index;
	struct knowledge knowledge;
	bool knowledge_dirty;
	uint64_t events; /* made in this transaction */
	struct version_dot own; /* incarnation and counter as of now; taken over by the replica at commit */
	uint64_t clock;		/* Lamport clock */
	struct line line;	 /* its last: our last incarnation, and what we counted there */
	bool turned_back;	 /* by replica_turn_back */
	uint64_t era;		/* of the replica when this began: an incarnation ended meanwhile stays ended */
	uint64_t forgotten;	/* paths in this transaction */
};

int replica_begin(struct replica *r, struct replica_txn *ret);
int replica_commit(struct replica_txn *t); /* durable; consumes it, also on failure (then all is as before) */
void replica_abort(struct replica_txn *t); /* harmless after commit */

/* Make K not know the path any more (knowledge_forget): its record is dropped without a decision. -ENOSPC. */
int replica_forget(struct replica_txn *t, const char *path);
/* How many paths were forgotten since the start. Who joins what a peer knew at some moment must see the same number as
 * before that moment: a path that was forgotten meanwhile was not compared with the peer as it is now. */
uint64_t replica_forgotten(const struct replica *r);

/*
 * Rounds in which a peer's records are taken, and its K is not joined yet: what a record's author had seen is not known here so
 * long, and something that others still have may be what he deleted. Any thread.
 */
void replica_round_begins(struct replica *r);
bool replica_round_over(struct replica *r); /* it was waited for since the last one was over */
/* Is another one under way than that in which this is asked? Then what is told by that is to wait. */
bool replica_other_round(struct replica *r);

enum replica_event_kind {
	REPLICA_EVENT_STATE,	  /* kind, content or target: writes the attributes' and mtime's dots too where they differ
				     from the old record's, or there is none */
	REPLICA_EVENT_ATTRIBUTES, /* mode, owner */
	REPLICA_EVENT_MTIME,	  /* mtime */
	REPLICA_EVENT_BOTH,	  /* attributes and mtime */
	REPLICA_EVENT_DELETE,
};

/*
 * Make an event for one path. old: the record it descends from (NULL: none; a record that is not materialised here must
 * not be passed). in_out: the new values (live, kind, content, target, mode, uid, gid, mtime) whose versions are filled in:
 * vv = old.vv + dot; the registers' dots per kind; lost is emptied by a new state, kept otherwise. For DELETE in_out is
 * made a tombstone. Nothing is stored: call index_put. -EOVERFLOW at VERSION_COUNTER_MAX. After a failure in_out is as
 * given, and the transaction must be aborted.
 */
int replica_event(struct replica_txn *t, enum replica_event_kind kind, const struct record *old, struct record *in_out);

/*
 * For anew_run, where that is due: go back to the point that the peer acknowledged. K forgets what was counted after it, and the
 * next event begins an incarnation that descends from there. *ret_line is the line that is left, *ret_point where. The records
 * that name more of it (line_after) must be recorded anew in this transaction.
 */
int replica_turn_back(struct replica_txn *t, struct line *ret_line, struct version_dot *ret_point);

/* Take over a peer's lineage entries, parents first. -EBADMSG: contradictory or with an unknown parent. An unknown
 * incarnation that claims our own replica id is taken (a restored past of ours). One that leaves our open incarnation above
 * what we counted there ends it: nothing we count later may be implied by it. */
int replica_learn_lineage(struct replica_txn *t, const struct version_incarnation *i, size_t n);
int replica_members_write(struct replica_txn *t, const struct members *m);
/* store_join under the writer lock. */
int replica_join(struct replica *r, const struct store_folder *was, const struct store_folder *now);

#endif
