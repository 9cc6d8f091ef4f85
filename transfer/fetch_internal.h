/*
 * transfer/fetch_internal.h — what taking is made of: fetch.c (offers and batches, planned and applied), fetch_content.c
 * (what a batch needs of the peer), fetch_nodes.c (the trees of it), fetch_deferred.c (deletions, at the end of the round). Nobody else includes it.
 */
#ifndef TRANSFER_FETCH_INTERNAL_H
#define TRANSFER_FETCH_INTERNAL_H

#include "transfer/session_internal.h"

/* fetch.c */
void fetch_offer_free(struct session *s, struct offer *o); /* in no batch; `pending` is the caller's */
struct batch *fetch_filling(struct session *s); /* NULL: no memory */
int fetch_batch_add(struct batch *b, struct offer *o);
/* The offer's outcome: counted, told, and an exception where it is not dealt with. The offer stays the caller's. */
int fetch_settle(struct session *s, struct offer *o);
/* After this error, was room made that may mend it? The disk was full, and what is in trash went, oldest first. */
bool fetch_make_room(struct replica *replica, int error);

/* fetch_content.c */
int fetch_content_begin(struct session *s, struct offer *o); /* planned, has a stage that is not complete */
int fetch_content_pump(struct session *s);
bool fetch_content_has_room(const struct session *s); /* for a tree that waits: pump again */
bool fetch_content_idle(const struct session *s);
void fetch_content_free(struct session *s, struct offer *o);
void fetch_content_reset(struct session *s); /* before the offers are freed */
/* Staged, or failed: it counts no more in its batch, unless something that names it is under way. */
void fetch_close(struct offer *o);
void fetch_fail(struct offer *o, int error);
int fetch_add_op(struct session *s, struct stage_op op); /* what it owns is taken over */
/* May the peer be told what is here, by names? Where we send nothing, only what came from it. source: the row's. */
bool fetch_may_name(const struct session *s, uint64_t source);
struct named_pieces *fetch_pieces_new(struct session *s, uint8_t bits, size_t max); /* NULL: no memory */
void fetch_pieces_unref(struct session *s, struct named_pieces *p); /* NULL: nothing */

/* fetch_nodes.c: an offer's walk ends with an op that has the list of chunks */
int fetch_begin_walk(struct offer *o);
int fetch_pump_walk(struct session *s, struct offer *o); /* it has one */
void fetch_walk_free(struct node_walk *w);
void fetch_nodes_reset(struct session *s);

/* fetch_deferred.c: a move is a new path (`copied`) and a deletion, deferred both, and next to each other in a batch */
int fetch_may_move(const struct session *s, struct index_txn *t, struct offer *o); /* sets `copied` */
int fetch_check_move(const struct apply_options *options, struct index_txn *t, struct offer *o); /* drops a move_from that won't do */
int fetch_defer(struct session *s, struct offer *o); /* takes the offer over when it returns 0 */
void fetch_deferred_reset(struct session *s);

#endif
