/*
 * base/defect.h — deliberate defects, which the tests must find (`make defects`). Nothing in a product build.
 *
 * A build with -DSYNCD_DEFECT=DEFECT_NAME has that one; without it, DEFECT() is false, and compilers leave out what it guards.
 * tests/defects.list says what each does wrong, where, and who is to find it. That no program of a product has any is a test:
 * objects with a defect bear DEFECT_MARK.
 */
#ifndef BASE_DEFECT_H
#define BASE_DEFECT_H

#include <stdbool.h>

#ifndef SYNCD_DEFECT
#define DEFECT(name) false
#else
#define DEFECT_MARK "this has a deliberate defect"
#define DEFECT(name) (SYNCD_DEFECT == DEFECT_##name)

static const char defect_mark[] __attribute__((used)) = DEFECT_MARK;

enum {
	DEFECT_NONE,
	DEFECT_BELOW_UNCHECKED,
	DEFECT_BRANCH_IGNORED,
	DEFECT_COMMIT_BEFORE_FSYNC,
	DEFECT_CONTENT_UNVERIFIED,
	DEFECT_COUNTER_REUSED,
	DEFECT_DISPLACED_UNCHECKED,
	DEFECT_DOTS_TOGETHER,
	DEFECT_EXACT_FOREVER,
	DEFECT_EXACT_UNPROVEN,
	DEFECT_EXCEPTION_FORGOTTEN,
	DEFECT_HASH_OF_STATE,
	DEFECT_INTENT_DROPPED,
	DEFECT_LOOK_SKIPPED,
	DEFECT_LOSER_TRASHED,
	DEFECT_MTIME_TRUSTED,
	DEFECT_NO_LAMPORT_STEP,
	DEFECT_NO_LOST,
	DEFECT_PEER_EXCEPTIONS_IGNORED,
	DEFECT_PRIVILEGES_STAY,
	DEFECT_PURGE_BY_AGE,
	DEFECT_PUSH_IS_ALL,
	DEFECT_SKIPPED_IS_LEARNT,
	DEFECT_SKIP_UNNOTED,
	DEFECT_STAGED_DELETED,
	DEFECT_SYMLINK_FOLLOWED,
	DEFECT_TOMBSTONE_WINS,
	DEFECT_UNREADABLE_IS_EMPTY,
	DEFECT_VECTORS_ONLY,
	DEFECT_WINNER_JOINS,
};
#endif

#endif
