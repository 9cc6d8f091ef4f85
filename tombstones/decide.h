/*
 * tombstones/decide.h — the decision table of DESIGN §3, one pure function. No input or output, no clock.
 *
 * For one side and one path: our record and our K of that path at the moment of applying; the peer's record and its K of
 * that path, read together in one transaction of the peer's.
 *
 * What is left of a side's dots (of its state, and of what lost to it) are those that the other side names too, or has not
 * seen, by its record's vector or its K: the merge of dotted version vectors with siblings (Preguiça and others, 2012). A
 * state of which no dot is left was overwritten or deleted at the other side. A modification that a deletion had not seen beats it,
 * with the dots that are left of it.
 *
 * All policies are total orders that both sides compute alike from the same two records: DECIDE_NEWEST takes what has no
 * mtime of its own (directories, tombstones) for the oldest; DECIDE_PREFER takes members not listed for the last.
 */
#ifndef TOMBSTONES_DECIDE_H
#define TOMBSTONES_DECIDE_H

#include "merkle/record.h"

enum decide_action {
	DECIDE_NONE,   /* nothing to do here */
	DECIDE_TAKE,   /* put the peer's state in place; the record is as given */
	DECIDE_MERGE,  /* our state stays; the record (versions, attributes, mtime) becomes as given */
	DECIDE_ASIDE,  /* our content to a conflict copy (a new event there), then take as given */
	DECIDE_DELETE, /* ours, as a new event */
	DECIDE_RENEW,  /* our state stays, the record is as given, and a new event writes it once more */
	DECIDE_DROP,   /* our tombstone goes (the caller also checks its grace) */
	DECIDE_WAIT,   /* the peer must act first: this path keeps its old knowledge */
};

enum decide_policy_kind { /* values are part of the protocol */
	DECIDE_KEEP_BOTH = 0, /* the order over dots */
	DECIDE_NEWEST = 1,    /* (mtime, then dots) */
	DECIDE_PREFER = 2,    /* rank of the member that wrote the state's greatest dot, then dots */
};

struct decide_policy {
	enum decide_policy_kind kind;
	const uint64_t *prefer; /* replica ids, best first; not owned */
	size_t n_prefer;
};

struct decide_input {
	const struct record *ours;   /* NULL: absent */
	const struct record *theirs; /* NULL: absent, proven by a comparison */
	const struct version_vector *our_k;
	const struct version_vector *their_k;
	const struct version_lineage *lineage;
	bool taker_loses;		     /* the peer only sends: our version loses every conflict */
	const struct decide_policy *policy; /* NULL: keep-both */
	uint64_t revert; /* our replica id: what only this replica wrote gives way to what the (only sending) peer has, which
			    is to trash, not aside; it becomes a version that lost, or a tombstone. 0: no */
};

struct decide_result {
	enum decide_action action;
	struct record record;  /* TAKE, MERGE, ASIDE, RENEW: the record to store; owned */
	bool attributes_moved; /* mode or owner of the result differ from ours (both live) */
	bool mtime_moved;
	bool privileges_cleared; /* setuid/setgid did not follow the content: to be told */
	bool same_dot;		 /* one dot names two states, a fault (a clone, a liar): both are kept; to be told */
	bool differs;		 /* afterwards this side shows another thing than the peer: content, attributes, mtime */
};

void decide_result_deinit(struct decide_result *r);
/* 0 or what merkle/version returns (no memory, limits). *ret is written on success only. Cost: O(dots + vectors) lookups. */
int decide(const struct decide_input *in, struct decide_result *ret);
const char *decide_action_name(enum decide_action action);

#endif
