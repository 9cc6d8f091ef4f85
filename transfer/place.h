/*
 * transfer/place.h — carry out one intent on disk. No index: what the index said is given, what came of it is returned.
 *
 * Nothing here overwrites, unlinks or follows what is not ours: an object is exchanged or moved into staging, looked at,
 * and then moved on: to trash or the conflict name if it is what the row said and nobody writes to it; else it is a
 * user's, and goes beside the path under a conflict name. Where moving on fails it stays in staging, with `keep` set: its
 * intent must then outlive the batch.
 */
#ifndef TRANSFER_PLACE_H
#define TRANSFER_PLACE_H

#include "base/sync.h"
#include "transfer/apply.h"
#include "transfer/intent.h"

struct place {
	struct store *store;
	int64_t now_ns; /* names trash buckets */
	struct sync_set touched;
	/* The directory of the change before, as the next one is likely to be there, too; dir: -1, or owned. Held so, it may be moved
	 * by a user meanwhile: what is put into it then goes with it, as if it had been put there before. */
	int dir;
	char parent[FILE_PATH_BYTES_MAX + 1];
	bool dir_touched, staging_touched; /* in `touched` */
};

/* An object that was put beside the path under a conflict name. */
struct place_copy {
	char *path;	     /* owned */
	bool known;	     /* the rest is; else the next scan finds it */
	struct record state; /* as scan_look gives it: no versions */
	struct stamp stamp;
	int64_t looked_ns;
	struct chunk_tree_node *nodes; /* owned; NULL if the index has them */
	size_t n_nodes;
};

struct place_outcome {
	enum apply_result result; /* DONE, NOT_HELD, CHANGED, BUSY, BLOCKED, FAILED */
	int error;
	bool placed;		  /* the staged object is not in staging any more, or not under its name */
	bool keep;		  /* what came out is left in staging, for recovery */
	bool exact;		  /* it is what the row said */
	uint8_t place;		  /* of the row to be */
	struct stamp stamp;	  /* of the object in place, or (a user was faster) of what was staged */
	int64_t looked_ns;	  /* just before the stamp was taken */
	struct place_copy *copies;
	size_t n_copies, cap_copies;
};

/* What was done to a staged file while it was open, so that it needs not be opened again. */
struct place_ready {
	bool preserve_owner;
	uint16_t mode;	      /* of the record, as these: what it was to show */
	uint32_t uid, gid;
	int64_t mtime_ns;
	struct stamp stamp;   /* since then, with the generation; it tells what became of the object meanwhile */
};

void place_init(struct place *p, struct store *store, int64_t now_ns);
void place_deinit(struct place *p); /* closes descriptors without syncing */
/* fsync all that was touched. Must be 0 before what was done is acknowledged. */
int place_sync(struct place *p);
/* Sync fd with the rest later; takes it over. */
void place_touch(struct place *p, int fd);

void place_outcome_deinit(struct place_outcome *o);
void place_copy_deinit(struct place_copy *c);
/* Takes *c over, or (out of memory) leaves it. */
bool place_add_copy(struct place_outcome *o, struct place_copy *c);

/* A file in staging gets owner, mode and mtime, and is synced, or (fsync false) its writeback is started. st: as it is now. 0, < 0, or a
 * file outcome. */
int place_make_ready(int fd, const struct file_stat *st, const struct record *r, bool preserve_owner, bool fsync, struct place_ready *ret);
/*
 * Make the staged object ready: create it (symlink, directory) or check it (file), give it owner, mode and mtime through
 * its descriptor. r: the record it is to show; NULL: an implied directory. Fills in new_kind and staged_stamp.
 * ready: of a file that was made ready, NULL of others; if it was for what r shows, nothing but syncing is left.
 * fsync: now, or (false) writeback is only started. 0, < 0, or a file outcome.
 */
int place_stage(struct place *p, struct intent *i, const struct record *r, const struct place_ready *ready, bool fsync);

/* Carry it out. ours: the row as it is in the index, NULL if there is none. Results are in *o; < 0 only when out of memory
 * before anything was touched. */
int place_run(struct place *p, const struct intent *i, const struct row *ours, struct place_outcome *o);
/* Both halves of a move: `from` takes the object out, `to` puts it in. It is moved only where a lease showed that it is what the row
 * says and has no other name; else it stays or goes back, and the outcomes are NEEDS_CONTENT, or what else was found. */
void place_run_move(struct place *p, const struct intent *from, const struct row *ours, struct place_outcome *from_o,
	const struct intent *to, struct place_outcome *to_o);
/* Is the row's object, but for its name, what the record is to show? */
bool place_moves_as(const struct row *row, const struct record *r, bool preserve_owner);
/* A look ahead: is it what the row says, with one name, and nobody writing to it? Nothing hangs on the answer. */
bool place_movable(struct store *store, const char *path, const struct row *row);
/* Of a directory that was put in place: mode and mtime, after all that goes into it; renews the stamp. < 0: it is still as it
 * was staged, and must not be recorded so. */
int place_finish_directory(struct place *p, const struct intent *i, struct place_outcome *o);

/* Recovery: what is in staging as i->displaced goes where it belongs. exact: it is what `ours` says. Other objects are a
 * user's. Sets keep. */
void place_dispose(struct place *p, const struct intent *i, const struct row *ours, bool exact, struct place_outcome *o);
/* Set attributes of the object in place again (recovery of SET). */
void place_set(struct place *p, const struct intent *i, const struct row *ours, bool verified, struct place_outcome *o);
/* Does the object have the row's content (rehashed)? 1, 0; < 0: that can't be told. -EBUSY while it is written, -EACCES where it
 * may not be read. */
int place_same_content(struct place *p, int dir, const char *name, const struct record *record);

/* rename(2) that never replaces, also where the file system has no such call. FILE_EXISTS. */
int place_move(int from_dir, const char *from, int to_dir, const char *to);
/* Of a file or directory by that name; 0: it can't be told. */
uint64_t place_generation(int dir, const char *name, uint8_t kind);
/* Equal in all but the change time, which renaming changes. */
bool place_same_object(const struct stamp *a, const struct stamp *b);

#endif
