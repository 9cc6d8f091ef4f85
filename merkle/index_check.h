/*
 * merkle/index_check.h — read all of an index and say whether it is whole, before LMDB maps it.
 *
 * LMDB trusts its pages: from a damaged one it concludes what is not so, aborts, or reads beyond the end of the file (SIGBUS).
 * So an opening reads the file first, with read(2): every page that is reachable from the newest meta page once, its header,
 * the bounds of its nodes, the order of its keys, the counts, the list of free pages, and every value's checksum. What has
 * passed can lead neither LMDB nor us astray; what rots afterwards is met as a wrong checksum, or by the next opening.
 */
#ifndef MERKLE_INDEX_CHECK_H
#define MERKLE_INDEX_CHECK_H

#include <stddef.h>
#include <stdint.h>

#define INDEX_CHECK_TEXT_BYTES 128

/* data.mdb in `dir`. 0; INDEX_MISSING: not there, or nothing was ever committed to it; -EBADMSG: damaged or not LMDB's, and
 * what is wrong in ret_what (INDEX_CHECK_TEXT_BYTES, for people; may be NULL); -EPROTONOSUPPORT: of another format; -EIO and
 * others: it could not be read, which proves nothing. O(index): one read of all that is in use, and a bit per page of memory.
 * Nobody may commit meanwhile. */
int index_check(int dir, char *ret_what);

/*
 * Reading all of a large index takes longer than a session that has nothing to do. So an index that is closed in order is sealed: the
 * file `sealed` beside it says which inode, size and times it had, when the machine was booted, and when it was last read
 * through. An index that is as its seal says, of this boot, and was read within INDEX_SEAL_S, is not read again. The seal goes
 * with each opening: after a crash all is read.
 */
#define INDEX_SEAL "sealed"
#define INDEX_SEAL_S (7 * 24 * 60 * 60)
/* As index_check, where no seal spares it. *ret_checked_s: when it was read, for index_seal. */
int index_check_sealed(int dir, int64_t *ret_checked_s);
/* After closing. Nothing is told of failures: then there is no seal. */
void index_seal(int dir, int64_t checked_s);

#endif
