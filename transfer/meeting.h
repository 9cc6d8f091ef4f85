/*
 * transfer/meeting.h — two replicas meet: whose folder id stands? A pure function of what both have greeted with.
 *
 * Both sides come to matching answers by themselves: one has something to do, and greets again when that is done or when its
 * id has changed meanwhile; the other waits for it; until both have the same id. Who is joined keeps its id against who is not;
 * who has offered it, against who is new; of two alike the smaller id stands. Two that are joined to different folders refuse
 * each other for ever, unless they are known to be one:
 *
 * No exchange of messages can make two sides sure that both have come to one id: whichever is said last may be cut off, and the
 * other may be drawn to a third replica meanwhile. So nobody comes to an id that is not marked as offered, durably, and one that
 * is offered is left in this order,
 *
 *   1. the side that stays notes it as a former id of its folder, durably, and greets again  (MEETING_NOTE; MEETING_WAIT)
 *   2. the other sees that, takes over the id, and notes its old one, too                    (MEETING_MOVE; MEETING_STAY)
 *
 * and whoever is joined to the former id follows when it meets either of them. A side is joined once the peer's HELLO has come:
 * the replica that said it can have left the id only as above. Several pairs of new replicas may become folders at the same
 * time. They become one if two of them have begun this session before both were joined (`kin`), as they were to be one folder
 * then, or both held the same id before, and left it.
 */
#ifndef TRANSFER_MEETING_H
#define TRANSFER_MEETING_H

#include "merkle/store.h"

enum meeting {
	MEETING_SAME,	/* both have this id */
	MEETING_STAY,	/* our id stands: wait for the peer to take it over */
	MEETING_MOVE,	/* take over the peer's */
	MEETING_OFFER,	/* our id stands: mark it as offered first */
	MEETING_NOTE,	/* our id stands: note the peer's as a former one first */
	MEETING_WAIT,	/* for either, the other way round */
	MEETING_REFUSE, /* two different folders */
	MEETING_HASH,	/* one folder with two hashes: the peer lies */
};

/* One side, as it greeted last. */
struct meeting_side {
	const struct store_folder *folder;
	bool sends, takes;
};

/* Who is joined follows only a peer that it takes from, and that has the same hash; but where each was the other's before, the smaller id
 * stands whoever takes: in a ring of three, of which each takes from the next one only, they would chase each other for ever. */
enum meeting meeting_decide(const struct meeting_side *ours, const struct meeting_side *theirs, bool kin);

#endif
