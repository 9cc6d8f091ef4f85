/*
 * merkle/store.h — a replica's places: the root, `.syncd/` with its parts, the identity, the lock, the open index.
 *
 *   ROOT/.syncd/            0700, owned by the root directory's owner, nodump
 *     identity              text; what it is and what copying can't carry prove that root and index belong together
 *     lock                  flock'ed by the one process that opens the index; holds "pid socket-path\n"
 *     index/                LMDB (or in state_dir)
 *     staging/              new objects before they are put in place; emptied at recovery
 *     trash/                what was replaced or deleted, by day
 *     CACHEDIR.TAG
 *
 * Identity (DESIGN §5): the index remembers inode, generation and birth time of .syncd/identity and the file system's id.
 * All equal (generation, birth time and file system where both sides know them): it is ours. The file is there with the
 * same ids, but those differ: root and index were copied or restored: `copied` is told, and the store goes on as a new
 * replica (new replica id; the caller empties K, see tombstones/observe). Device numbers and the machine id prove nothing.
 *
 *   identity  index                 without create    with create
 *   none      none                  STORE_NO_INDEX    a new folder
 *   there     none                  STORE_NO_INDEX    the same folder, joined, as a new replica with an empty index
 *   none      there, in .syncd      STORE_NO_INDEX    the same folder, as a copy
 *   none      there, in state_dir   STORE_FOREIGN     STORE_FOREIGN (the root is not mounted, or emptied;
 *                                   without .syncd and create: STORE_NO_INDEX)
 *   there     of other ids          STORE_FOREIGN     STORE_FOREIGN
 *   there     damaged               set aside; the same folder, joined, as a new replica with an empty index (merkle/rebuild)
 *   damaged   there, of this file   remade from the index
 *   damaged   of another file       as a copy; in state_dir: STORE_FOREIGN
 *   none      damaged               -EBADMSG; in state_dir: STORE_FOREIGN
 *   damaged   none, or damaged      -EBADMSG: nothing says any more which folder this is
 *
 * That a new replica follows says all that is needed: K is empty, its events have no parent, and a first comparison pairs by
 * content. What the lost index had under way is in staging, and goes to trash at the first recovery (transfer/recover).
 *
 * Which folder. A new replica draws an id of its own, and takes over another's when it meets one (transfer/meeting.h). Meetings
 * may be cut off, and several may go on at once; so what a replica has told others about its id is kept (`standing`), and the
 * ids that were left for the one it has now (`former`): whoever came to one of those through somebody who left it can follow.
 *
 * A crash while any of this is made or changed is repaired by the next open. Folders must not overlap: a root below
 * another one, on the same mount, is refused here; a root inside this one is left out by the scan. `.syncd` must
 * belong to the owner of the root directory, to root, or to us: who else may write into the root can't plant one.
 */
#ifndef MERKLE_STORE_H
#define MERKLE_STORE_H

#include "base/file.h"
#include "merkle/index.h"
#include "merkle/rebuild.h"

enum store_outcome {
	STORE_NO_ROOT = 1,  /* the path is not a directory (not there, not mounted) */
	STORE_NO_INDEX,	    /* no .syncd here, or no index in it, and `create` was not given */
	STORE_LOCKED,	    /* another process has it; store_lock_holder says who */
	STORE_ROOT_CHANGED, /* the path is another directory now than the one that was opened, or lost its .syncd */
	STORE_FOREIGN,	    /* the index belongs to another identity file (a state_dir of another root) */
	STORE_DENIED,	    /* no permission, or .syncd belongs to someone who does not own the root */
	STORE_READ_ONLY,
	STORE_OVERLAP,	    /* the root is inside another folder, or state_dir is inside the root */
	STORE_FAILING,	    /* the index was damaged and rebuilt REBUILD_PER_DAY times today, and is damaged again */
	STORE_MOVED,	    /* the folder id is not what the caller thought */
};

/* Values are part of the protocol and of the index. */
enum store_standing {
	STORE_NEW,     /* nobody has come to this id through us */
	STORE_OFFERED, /* we may have said HELLO under it, so that somebody may have; but we have seen nobody who holds it, and may leave it */
	STORE_JOINED,  /* a peer showed that it holds this id too: we leave it only to follow those who did */
};

#define STORE_FORMER_MAX 32 /* beyond it the oldest is forgotten */

/* The folder a replica belongs to. */
struct store_folder {
	uint64_t id;
	enum hash_algorithm algorithm;
	enum store_standing standing;
	uint64_t former[STORE_FORMER_MAX]; /* ids that were left for this one, oldest first; may name `id` itself */
	size_t n_former;
	uint32_t left; /* bit i: former[i] was ours, and we left it; the others we were told of */
};

struct store;

#define STORE_HOLDER_BYTES_MAX 4096

struct store_options {
	bool create;			/* make .syncd/ and an index where none is; see above */
	enum hash_algorithm algorithm;	/* for a created folder; 0: SHA-256 */
	const char *state_dir;		/* where the index is, instead of ROOT/.syncd/index; made if create */
	const char *holder;		/* written into the lock for others to find us (socket path); may be NULL */
};

/* Besides outcomes: -EBADMSG: see above; -EPROTONOSUPPORT: identity or index is of another format. Reads all of the index
 * (merkle/index_check). options may be NULL. The getters are thread-safe; store_join and store_renew_replica exclude each other. */
int store_open(struct store **ret, const char *root, const struct store_options *options);
void store_close(struct store *s);

/* Who holds the lock of `root`: pid (0: just taking it) and the holder text (heap, "" if none). STORE_NO_INDEX if nobody
 * does; STORE_NO_ROOT, STORE_DENIED. The text is only as true as whoever may write into .syncd. */
int store_lock_holder(const char *root, int64_t *ret_pid, char **ret_holder);
/* A daemon would like to have the replica that another process holds: leaves a note in .syncd, which goes when the lock
 * changes hands. A one-shot process that serves a connected peer looks for it, and ends in order. */
int store_ask_release(const char *root);
bool store_release_asked(const struct store *s);
/* uid that owns ROOT/.syncd (or ROOT, where there is none yet). */
int store_owner(const char *root, uint32_t *ret_uid);

const char *store_path(const struct store *s); /* the root as given, made absolute; for people */
int store_root(const struct store *s);	       /* descriptors: valid until store_close */
int store_staging(const struct store *s);
int store_trash(const struct store *s);
/* The trash's directory was removed by somebody: make it anew, under the same descriptor. Any thread. 0, < 0 or an outcome. */
int store_renew_trash(struct store *s);
struct index *store_index(const struct store *s);
const struct file_abilities *store_abilities(const struct store *s);
/* What to record with a stamp that is exact: the number of this mount among those that the index was opened in; 0 where times are not. */
uint32_t store_mount(const struct store *s);
/* May it be relied on as exact? Only in the mount in which it was recorded: between two of them, power may have been lost, and have left a
 * user's new bytes under the times that were durable. */
bool store_exact(const struct store *s, const struct stamp *stamp);
enum hash_algorithm store_algorithm(const struct store *s);
uint64_t store_folder_id(const struct store *s);
uint64_t store_replica_id(const struct store *s);
void store_folder(const struct store *s, struct store_folder *ret);
bool store_joined(const struct store *s); /* standing == STORE_JOINED */
bool store_created(const struct store *s); /* the index, by this open */
bool store_copied(const struct store *s);  /* recognised as a copy or restored by this open */
const struct rebuild *store_rebuilt(const struct store *s); /* when and why last; NULL: never. Valid until store_close */
bool store_rebuilt_now(const struct store *s);		    /* by this open */
bool store_damaged_kept(const struct store *s);		    /* the damaged one is still there */
bool store_identity_remade(const struct store *s);	    /* by this open */
/* index_check on the open index. The caller keeps all from writing: see replica_lock. */
int store_check_index(const struct store *s, char *ret_what);

/* Is the path still the directory that we opened, with our .syncd/identity in it? 0 or STORE_ROOT_CHANGED. Cheap. */
int store_check_root(const struct store *s);
/* Go from the folder id of `was` (by store_folder) to `now`, durably. STORE_MOVED: the id is another by now, or it would change
 * and the standing is another; then nothing is done. For the same id the standing never falls. `former` of now is added to what
 * is noted already, as is, with its bit in `left`, an id that we leave and that was not STORE_NEW. Another id rewrites
 * identity and meta, and rebuilds the tree; another algorithm (only with another id, and not once joined: -EINVAL) drops all
 * rows, to be rescanned. Begins a write transaction of its own. After a failure close the store: the next open completes it or
 * takes it back. */
int store_join(struct store *s, const struct store_folder *was, const struct store_folder *now);
bool store_folder_was(const struct store_folder *f, uint64_t id); /* is it a former id of this folder? */
/* Draw a new replica id (a clone met its original). */
int store_renew_replica(struct store *s);

#endif
