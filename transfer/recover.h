/*
 * transfer/recover.h — finish or undo what intents name. See apply_recover in transfer/apply.h, and DESIGN §8.
 *
 *   found                                   then
 *   new in place                            rehash; recorded as taken; if it differs: a user's edit of the new
 *   new in staging                          not done; removed. A directory, and what is to be where nothing is left: put in place
 *   new nowhere, old nowhere, path empty    a user deleted the new (if staging is otherwise as it was left)
 *   anything else                           a user's: left to the next scan
 *   old of a move in staging                back to its path; where that can't be, where its fate says; the new is not done
 *   old in staging                          where its fate says, if it is what the row says; else a user's, beside the path
 */
#ifndef TRANSFER_RECOVER_H
#define TRANSFER_RECOVER_H

#include <stdint.h>

#define RECOVER_MARKER_BYTES 32

/* The name in staging of a batch's marker file. */
void recover_marker(char ret[RECOVER_MARKER_BYTES], uint64_t batch);

#endif
