/*
 * merkle/scan.h — look at what is on disk and say what differs from the index. Writes nothing.
 *
 * A scan walks by directory descriptors, in path order, iteratively. An entry whose stat equals its row's stamp and is
 * older than the recording is clean (racily clean ones are rehashed); the rest is hashed. The sink gets one observation per
 * path that is not clean, in path order within a directory. Any error below a directory makes its absences
 * unproven: the rows below are then not reported as gone, and the error is.
 * A file that changes while it is read is reported as SCAN_UNSETTLED and is to be looked at again later.
 * With a pool, files are read and hashed by its threads while the walk goes on, at most SCAN_AHEAD of them or SCAN_AHEAD_BYTES
 * in all; what is told comes from the caller's thread, in the same order, whatever is done first. busy() is asked before.
 * Where a directory has many names, a thread looks at some of them before their turn, after the scan has begun and the
 * directory is watched; the walk does not look again at what it saw to be clean.
 *
 * Memory: the names of the directories on the path that is being walked, 256 rows and up to 45 KiB of looks ahead for each
 * of them, the paths that are gone, and what waits to be told. Descriptors: one for each directory on that path, or of what waits. No transaction is open
 * while the sink is called or a file is hashed. What is trusted without reading: an equal stamp that is not racily clean; a new
 * name whose inode, size, mtime and ctime are a row's (below a directory that was moved). A chmod, or a renaming of the file
 * itself, moves the ctime, and may hide an edit: the file is read.
 */
#ifndef MERKLE_SCAN_H
#define MERKLE_SCAN_H

#include <stdatomic.h>

#include "merkle/ignore.h"
#include "merkle/store.h"

enum scan_what {
	SCAN_NEW,	/* on disk, no row with a live record on disk */
	SCAN_CHANGED,	/* state (kind, content, target) differs from the row; attributes and mtime may, too */
	SCAN_TOUCHED,	/* same state; mode, owner or mtime differ from the stamp */
	SCAN_RESTAMP,	/* same in all that counts; the stamp must be renewed (inode, ctime, racily clean). Or an implied
			   directory that is empty */
	SCAN_AGED,	/* same, for sure, so that nothing was read: the stamp was exact, and is old enough by now to need that no more */
	SCAN_GONE,	/* row is ROW_ON_DISK or ROW_IMPLIED, and its absence is proven */
	SCAN_IGNORED,	/* row with a live record, the path is ignored now */
	SCAN_UNIGNORED, /* row is ROW_IGNORED, the path is not ignored any more, or ROW_UNSUPPORTED, and this disk could hold it now;
			 * nothing of it is on disk */
	SCAN_LEFT_OUT,	/* fifo, socket, device, foreign mount, invalid name: reported, not ours, never absent */
	SCAN_UNSETTLED, /* changed while it was read, or open for writing and too young: again later */
	SCAN_ERROR,	/* could not be read: error says why; nothing is concluded */
};

/* Flags of what a SCAN_NEW/CHANGED/TOUCHED observation found different. */
enum { SCAN_MODE = 1, SCAN_OWNER = 2, SCAN_MTIME = 4 };

struct scan_observation {
	enum scan_what what;
	const char *path;
	uint64_t seq;		    /* the row's sequence when it was looked at; 0: no row, or one without a record */
	bool had_row;
	bool covers;		    /* no directory, and what the index may have below it is told as gone after it */
	struct record state;	    /* NEW, CHANGED: live, kind, content, target, mode, uid, gid, mtime_ns as found;
				       TOUCHED, RESTAMP, AGED: mode, uid, gid, mtime_ns as found; no versions */
	struct stamp stamp;	    /* as found (NEW, CHANGED, TOUCHED, RESTAMP, AGED) */
	int64_t looked_ns;	    /* wall clock just before the stamp was taken */
	unsigned flags;		    /* SCAN_MODE | … against the row's stamp (TOUCHED) */
	int error;		    /* ERROR: negative errno or file outcome. LEFT_OUT: FILE_UNSUPPORTED a special file,
				       FILE_OUTSIDE something mounted there, -EINVAL or -ENAMETOOLONG a name that may not be,
				       -ENOTUNIQ the root of another folder. UNSETTLED: 0 */
	const struct chunk_tree_node *nodes; /* NEW, CHANGED with height > 0: to be put into the index */
	size_t n_nodes;
};

/* A finished node of a file's chunk tree, held until its row is written. */
struct chunk_tree_node {
	struct hash hash;
	uint8_t level;
	uint32_t n;
	uint8_t *payload;
};

#define SCAN_AHEAD 64
#define SCAN_AHEAD_BYTES (UINT64_C(4) << 30) /* of files; one file may be longer */

struct scan_sink {
	/* Each observation; valid during the call. Non-zero stops the scan and is returned. */
	int (*observe)(const struct scan_observation *o, void *data);
	/* Before a directory is read (add the watch first). NULL: none. Non-zero outcomes are ignored. */
	void (*directory)(int dirfd, const char *path, void *data);
	void *data;
};

struct scan_counts {
	uint64_t directories, files, symlinks, bytes_hashed, left_out, errors, unsettled;
	uint64_t hard_links; /* files with more than one name: each is synced as a file of its own */
};

struct scan_options {
	struct store *store;
	struct ignore *ignore;	    /* rules; .syncignore files met on the way are read into it */
	const char *subtree;	    /* "" = all; else this path and, if it is a directory, all below. What is no valid path
				       is left out. If the rules of a .syncignore on the way down have changed, all
				       below that directory is scanned instead */
	bool shallow;		    /* of a directory: itself and its direct children only (children that are directories
				       and have no row are scanned whole) */
	int64_t rehash_before_ns;   /* trust no stamp that was recorded before (wall clock): hash the content even when stat is
				       equal. What is stored through a mapping may show in none. 0: all are trusted */
	const atomic_bool *cancel;  /* NULL, or checked between entries and between chunks: -ECANCELED */
	struct pool *pool;	    /* reads and hashes while the walk goes on; NULL, or one without threads: all is done in turn */
	struct pace *pace;	    /* of the walk and of reading (the pool has its own); NULL: no limit */
	/* May this row be skipped (a path under an intent)? NULL: none. */
	bool (*busy)(const char *path, void *data);
	void *busy_data;
};

/* One walk. 0: complete (errors may still have been observed); < 0 stopped; STORE_ROOT_CHANGED before anything else, and
 * again checked at the end: if the root changed meanwhile, absences already reported must not be used. Therefore all
 * SCAN_GONE observations are delivered at the end of the walk, after that check. */
int scan_run(const struct scan_options *options, const struct scan_sink *sink, struct scan_counts *ret_counts);

/* The state on disk of one name: fills state and stamp, hashing as needed; nodes are appended. Outcomes as of base/file.h,
 * CHUNKER_CHANGED is mapped to FILE_BUSY. Used by apply to look at what came out of an exchange. */
int scan_look(struct store *store, int dir, const char *name, struct record *ret_state, struct stamp *ret_stamp,
	struct chunk_tree_node **ret_nodes, size_t *ret_n_nodes);
void scan_nodes_free(struct chunk_tree_node *nodes, size_t n);
void stamp_of(const struct file_stat *st, struct stamp *ret); /* generation left 0 */
uint8_t scan_kind(const struct file_stat *st); /* enum record_kind; 0: special */

#endif
