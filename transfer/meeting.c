/* transfer/meeting.c — whose folder id stands; see transfer/meeting.h. */
#include "transfer/meeting.h"

/* Did both hold one id, and leave it? */
static bool left_one(const struct store_folder *a, const struct store_folder *b)
{
	for (size_t i = 0; i < a->n_former; i++)
		for (size_t j = 0; j < b->n_former; j++)
			if (a->former[i] == b->former[j] && a->left >> i & b->left >> j & 1)
				return true;
	return false;
}

/* Both are joined, to different ids: may `a` follow `b`? (`one`: they should be one folder.) Rows that came from peers can't be dropped, as another hash would. */
static bool may_follow(const struct meeting_side *a, const struct meeting_side *b, bool one)
{
	return a->takes && b->sends && a->folder->algorithm == b->folder->algorithm &&
	       (one || store_folder_was(b->folder, a->folder->id));
}

enum meeting meeting_decide(const struct meeting_side *ours, const struct meeting_side *theirs, bool kin)
{
	const struct store_folder *o = ours->folder, *t = theirs->folder;
	bool we_stay = o->standing != t->standing ? o->standing > t->standing : o->id < t->id;

	if (o->id == t->id)
		return o->algorithm == t->algorithm ? MEETING_SAME : MEETING_HASH;
	if (o->standing == STORE_JOINED && t->standing == STORE_JOINED) {
		bool one = kin || left_one(o, t);
		bool we = may_follow(ours, theirs, one), they = may_follow(theirs, ours, one);

		if (!we && !they)
			return MEETING_REFUSE;
		if (we != they && !(store_folder_was(o, t->id) && store_folder_was(t, o->id)))
			we_stay = they;
	}
	if (o->standing == STORE_NEW && t->standing == STORE_NEW)
		return we_stay ? MEETING_OFFER : MEETING_WAIT;
	if (we_stay)
		return t->standing == STORE_NEW || store_folder_was(o, t->id) ? MEETING_STAY : MEETING_NOTE;
	return o->standing == STORE_NEW || store_folder_was(t, o->id) ? MEETING_MOVE : MEETING_WAIT;
}
