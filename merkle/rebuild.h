/*
 * merkle/rebuild.h — setting a damaged index aside: what merkle/store does before it makes a new one.
 *
 *   data.mdb       the index                      (in .syncd/index, or in state_dir; all of them)
 *   damaged.mdb    the one that was set aside last, for diagnosis; a next one replaces it
 *   rebuilt        text: that, when and why; while `aside` is not 0, it is under way
 *
 * In this order, each step durable before the next: the note says which file is to go (by inode) — data.mdb is renamed to
 * damaged.mdb — the store makes a new index, with a new replica id in it and in the identity file — the note says that
 * it is done. A crash anywhere is finished by the next opening: if data.mdb still is the file that the note names, it goes;
 * if not, what is there is the new one, perhaps cut off.
 *
 * An index that is damaged again and again is not rebuilt for ever: the disk, or the memory, is what is broken.
 */
#ifndef MERKLE_REBUILD_H
#define MERKLE_REBUILD_H

#include <stdbool.h>
#include <stdint.h>

#include "merkle/index_check.h"

#define REBUILD_PER_DAY 3
#define REBUILD_NOTE "rebuilt"
#define REBUILD_KEPT "damaged.mdb"

enum rebuild_outcome {
	REBUILD_NONE = 1, /* no index was rebuilt here */
	REBUILD_TOO_OFTEN,
};

struct rebuild {
	uint64_t aside; /* inode of the data.mdb that is to be set aside; 0: done */
	uint32_t count; /* since since_s */
	int64_t since_s, last_s; /* wall clock; for people, and to count by the day */
	char why[INDEX_CHECK_TEXT_BYTES];
};

/* dir: where the index is. REBUILD_NONE also where the note can't be made out: it is only a note. */
int rebuild_read(int dir, struct rebuild *ret);
/* Note that data.mdb is damaged: from here on it will be set aside. REBUILD_TOO_OFTEN: nothing was done; ret says since when. */
int rebuild_begin(int dir, const char *why, int64_t now_s, struct rebuild *ret);
/* Set aside what the note names, if that was not done yet. Only while no index is open. */
int rebuild_set_aside(int dir, const struct rebuild *r);
/* The disk is full: better no damaged index than no new one. Only once set aside. */
int rebuild_make_room(int dir);
/* The new index stands. Where the disk has not as much room again, the damaged one goes. */
int rebuild_end(int dir, struct rebuild *in_out);
bool rebuild_kept(int dir); /* is there a damaged index? */

#endif
