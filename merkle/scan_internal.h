/*
 * merkle/scan_internal.h — what the parts of the scan (scan, scan_tell, scan_object, scan_rows) share. See merkle/scan.h.
 */
#ifndef MERKLE_SCAN_INTERNAL_H
#define MERKLE_SCAN_INTERNAL_H

#include "merkle/scan.h"

/* --- scan_object: one object on disk; knows nothing of the walk, so that it can run on any thread --- */

struct scan_object {
	struct file_stat st;	  /* the same before and after reading */
	uint64_t generation;	  /* 0: unknown, or not looked at with a descriptor */
	uint32_t exact;		  /* not 0: what was read is what st's stamp says, and any change will show: see struct stamp */
	struct content content;	  /* file, symlink */
	char *target;		  /* symlink; owned */
	struct chunk_tree_node *nodes; /* file of height > 0; owned, children before parents */
	size_t n_nodes, cap_nodes;
	struct pool *pool;	       /* helps with a large file, or NULL */
	struct pace *pace;	       /* or NULL */
	bool (*cancelled)(void *data); /* NULL: it is read to its end */
	void *data;
};

void scan_object_deinit(struct scan_object *o);
/*
 * Read a file or symlink that stat shows as o->st. bits: the chunker's parameter. 0; FILE_BUSY: it changed, vanished or
 * became something else meanwhile, or is young and open for writing; FILE_DENIED; < 0.
 */
int scan_object_read(struct scan_object *o, const struct store *store, int dir, const char *name, uint8_t bits);
/* Take the content of a file from a row with the same inode, if that proves anything, instead of reading it: 1 done, 0 no. */
int scan_object_recognise(struct scan_object *o, struct store *store, int64_t window_ns, int dir, const char *name);
/* live, kind, content, target (moved), attributes and mtime as found. */
void scan_object_state(struct scan_object *o, struct record *ret);
void scan_object_stamp(const struct scan_object *o, struct stamp *ret);

/* Was the stamp taken too shortly after its times to prove anything by them? */
bool scan_young(const struct stamp *stamp, int64_t recorded_ns, int64_t window_ns);
/* May the object have changed after its stamp was taken, without the stamp showing it? */
bool scan_racy(const struct store *store, const struct stamp *stamp, int64_t recorded_ns, int64_t window_ns);
#define SCAN_RACY_NS INT64_C(2000000000) /* the coarsest granularity of times (FAT), and beyond any clock tick */

/* --- scan_rows: the index, read by directory in short transactions --- */

struct scan_known {
	size_t name; /* of a direct child: where it stands in the window's names */
	bool has_row;
	struct row_brief row; /* if has_row; else there are only rows below */
};

/* A window on the children of a directory that the index knows, in order of names. Zero-initialised is at the start. */
struct scan_window {
	struct scan_known *v; /* owned */
	size_t n, cap, at;
	struct buf names; /* each with its NUL */
	bool started, ended; /* ended: nothing comes after v */
	struct path_key resume;
};

/* All rows under one cut prefix, sorted: see merkle/path.h. */
struct scan_zone {
	bool loaded;
	uint8_t prefix[PATH_KEY_PREFIX];
	struct scan_row *v; /* owned */
	size_t n, cap;
};

struct scan_row {
	char *path; /* owned */
	struct row_brief row;
};

/* The next known child of directory `dir`, or NULL at the end; stays until taken by w->at++. zone: a cache. */
int scan_window_peek(struct scan_window *w, struct index *index, struct scan_zone *zone, const char *dir,
	struct scan_known **ret);
const char *scan_window_name(const struct scan_window *w, const struct scan_known *known); /* until the next peek */
int scan_window_single(struct scan_window *w, struct index *index, const char *path); /* of this one path only */
void scan_window_deinit(struct scan_window *w);
void scan_zone_deinit(struct scan_zone *z);

/* Each row strictly below path, outside of any transaction. Non-zero from emit stops, passed on. */
typedef int scan_row_emit(const char *path, const struct row_brief *row, void *data);
int scan_rows_below(struct index *index, struct scan_zone *zone, const char *path, scan_row_emit *emit, void *data);

/* --- scan: the walk --- */

/* A directory's descriptor: of its frame, and of the files in it that wait to be read. */
struct directory {
	int fd;
	unsigned users;
};

/* One name in hand. */
struct entry {
	const char *path; /* the walk's, or what waits has its own */
	int dir;
	const char *name;
	const struct row_brief *row; /* NULL: the index has none */
	bool known;	       /* the index knows something at or below it */
	struct scan_object object;
	int64_t looked_ns;
	bool unproven; /* its absence would be */
	bool read;     /* all its bytes were hashed */
	bool empty;    /* a directory in which nothing was listed */
};

/* What is to be told in its turn. */
struct waiting {
	struct pool_job job;
	struct walk *walk;
	char *path;		     /* owned */
	struct directory *directory; /* NULL: nothing is to be read, `told` is told */
	struct entry entry;
	struct row_brief row; /* the entry's */
	int result;	/* of reading it */
	struct scan_observation told;
};

struct walk {
	const struct scan_options *o;
	const struct scan_sink *sink;
	struct index *index;
	int64_t window_ns; /* of racily clean stamps */
	struct scan_counts counts;
	struct frame *frames[FILE_DEPTH_MAX + 1]; /* owned; root first */
	size_t depth;
	char path[FILE_PATH_BYTES_MAX + 1 + FILE_NAME_BYTES_MAX + 1]; /* of the entry in hand */
	struct scan_zone zone;
	struct buf gone;   /* {u64 sequence, u8 may be a directory, path with its NUL} */
	bool nothing_gone; /* the root was not listed to its end */
	bool nothing_known; /* the index was empty: nothing can have been moved */
	struct waiting *waiting; /* owned: SCAN_AHEAD places, from first on n of them; NULL without a pool */
	size_t first, n;
	uint64_t waiting_bytes; /* of files */
	atomic_bool ended;	/* nobody wants to know any more */
	unsigned ahead_pause;	/* stretches of names that are not looked at ahead */
};

/* --- scan_tell: what it tells, in the order of the walk; results are those of the sink, or < 0 --- */

bool walk_fatal(int r); /* not the file system's, but ours: the walk cannot go on */
bool walk_cancelled(const struct walk *w);
bool walk_busy(const struct walk *w, const char *path);

int walk_tell(struct walk *w, const struct scan_observation *o);
int walk_tell_plain(struct walk *w, enum scan_what what, const char *path, const struct row_brief *row, int error);
/* A look at the path, or into it, came to `r`. */
int walk_tell_not_entered(struct walk *w, const char *path, const struct row_brief *row, int r);
int walk_tell_first(struct walk *w); /* what waits at the head of the ring, once it is read */
void walk_drop_waiting(struct walk *w); /* nobody wants to know any more */
void directory_leave(struct directory *d); /* the last one closes it */

/* The name in hand, and so all below it, is not there; it is ignored, with all below. */
int walk_absent(struct walk *w, const struct entry *e);
int walk_ignored(struct walk *w, const struct entry *e);
/* Tell how the object differs from what the index believes to be here, if at all. A file or symlink is read if it must be; if
 * the pool reads it, it waits, with the row of `known` (taken) and a use of the directory. */
int walk_judge_directory(struct walk *w, struct entry *e);
/* Is it a file or symlink with which nothing is to be done? */
bool walk_clean(const struct walk *w, const struct entry *e);
int walk_leaf(struct walk *w, struct entry *e, struct directory *in, struct scan_known *known);

#endif
