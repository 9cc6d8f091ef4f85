/*
 * tombstones/anew.h — record anew what a replica that was restored while it ran counted under names that another past of its own had
 * given away (tombstones/line.h). DESIGN §3 "a peer names more of it than we counted".
 *
 * All that our line names after the point that the peer had acknowledged: registers that such events wrote get new events, of an
 * incarnation that descends from that point; vectors and `lost` forget such dots, since the same names may stand for what was
 * never seen here. So what the other past did meets what this one did as a conflict, and both are kept. The price: what
 * was counted after the last acknowledgement but before the snapshot meets its own other self. Equal content is joined, but
 * what this side deleted of it meanwhile comes back, and what it changed becomes a conflict copy.
 */
#ifndef TOMBSTONES_ANEW_H
#define TOMBSTONES_ANEW_H

#include "tombstones/replica.h"

/* If it is due (replica_anew_due); else nothing. One transaction: all of it or nothing; O(rows). Takes the writer lock.
 * *ret_records: records that were changed. */
int anew_run(struct replica *r, uint64_t *ret_records);

#endif
