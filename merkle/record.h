/*
 * merkle/record.h — the replicated record of one path, and the local row around it. DESIGN §3.
 *
 * A record has registers under one version vector: the state (live or deleted, kind, content) with its dots and `lost`;
 * the attributes (mode, owner, group) with adots; the mtime with mdots. A row adds what concerns this replica
 * alone: is this version on this disk, and the stamp that the disk gave back after it was put there.
 */
#ifndef MERKLE_RECORD_H
#define MERKLE_RECORD_H

#include "merkle/chunk_tree.h"
#include "merkle/version.h"

/* Values are part of the formats. A kind above the known ones is opaque: carried, never on disk here, never absence. */
enum record_kind {
	RECORD_FILE = 1,
	RECORD_DIRECTORY = 2,
	RECORD_SYMLINK = 3,
};

#define RECORD_TARGET_BYTES_MAX 4095
#define RECORD_BYTES_MAX (512 * 1024) /* an encoded record */

struct record {
	bool live;		  /* false: a tombstone; kind, content, attributes and mtime are then zero and empty */
	uint8_t kind;		  /* enum record_kind, or an opaque one */
	struct content content;	  /* file: its bytes; symlink: hash and length of the target; directory: zero */
	char *target;		  /* symlink: its target, owned; else NULL */
	struct version_vector vv; /* all that this version descends from */
	struct version_dots dots; /* the events that wrote exactly this state; never empty in a record */
	struct version_dots lost; /* dots that lost a conflict to this state */
	uint16_t mode;		  /* 07777; 0777 for symlinks */
	uint32_t uid, gid;
	struct version_dots adots; /* the events that wrote these attributes */
	int64_t mtime_ns;	   /* of a directory: a hint outside hash and events */
	struct version_dots mdots; /* the events that wrote this mtime; empty for directories */
};

void record_deinit(struct record *r); /* and zero it */
int record_copy(struct record *ret, const struct record *from);
/* Same live, kind, content, target? (the state register's value, not its dots) */
bool record_same_state(const struct record *a, const struct record *b);
bool record_same_attributes(const struct record *a, const struct record *b);
/* Equal in everything that is hashed. */
bool record_equal(const struct record *a, const struct record *b);

/* Encoding: version byte 1, flags, registers; one encoding of a record. record_get checks everything that one record
 * alone can show: known flags, dots not empty; every dot in vv by its own entry, or possibly implied by one of a higher
 * counter (lineage is checked by the session); a live record has adots, a file or symlink mdots; fields that do not go
 * with kind or deletion are zero; limits. record_put of what record_get would refuse sets the buffer's error to -EINVAL;
 * record_hash then returns it. */
void record_put(struct buf *b, const struct record *r);
void record_get(struct cursor *c, struct record *ret); /* fails the cursor; ret is deinit-able either way */
/* Hash over path and all replicated registers (a directory's mtime left out): what the comparison tree is made of. */
int record_hash(enum hash_algorithm algorithm, const char *path, const struct record *r, struct hash *ret);

/* A live record's values without its versions: kind, state, attributes, mtime (of a directory: not). For hashing. */
void record_values_put(struct buf *b, const struct record *r);
/* What record_get checks of a record. */
bool record_valid(const struct record *r);

/* --- the local half --- */

enum row_place { /* values are part of the index format */
	ROW_NOT_HERE = 0,   /* nothing of it on disk: a tombstone, or see below */
	ROW_ON_DISK = 1,    /* the record's state is materialised; the stamp is valid */
	ROW_IMPLIED = 2,    /* a directory that exists only because something is below it (or unknown content is inside):
			       no live record; local; no event */
	ROW_IGNORED = 3,    /* live record, path ignored here */
	ROW_UNSUPPORTED = 4, /* live record of a kind this syncd or disk can't hold */
	ROW_COLLIDES = 5,   /* live record whose name is another's here (case, Unicode) */
};

/*
 * What this disk said of the object after it was put there or scanned: compared by later scans, never sent. An exact one: nobody had it
 * open for writing, and the file system gives each change after this look another ctime (file_abilities.exact_times). Else a change may
 * hide for as long as the file system's clock does not tick: such a stamp proves something only if it was taken a while after its
 * times (git calls the others racily clean).
 */
struct stamp {
	uint64_t ino;
	uint64_t generation; /* FS_IOC_GETVERSION of what we looked at with a descriptor, else 0 = unknown */
	uint64_t size;
	int64_t mtime_ns, ctime_ns;
	uint16_t mode;
	uint32_t uid, gid;
	uint32_t nlink;
	uint32_t exact; /* 0: not; else in which of the store's mounts it is: see store_exact */
};

struct row {
	struct record record; /* dots empty: none (only with ROW_IMPLIED) */
	uint8_t place;	      /* enum row_place */
	struct stamp stamp;   /* valid for ROW_ON_DISK and ROW_IMPLIED */
	int64_t recorded_ns;  /* wall clock when the stamp was taken: racily clean entries are rehashed */
	int64_t since_ns;     /* tombstone: wall clock when it came to be known here (grace) */
	uint64_t seq;	      /* local sequence, set by index_put; 0 for a row that has no record */
	uint64_t source;      /* replica id this row was taken from unchanged, else 0: the feed passes over it */
};

void row_deinit(struct row *r); /* and zero it */
int row_copy(struct row *ret, const struct row *from);
bool row_has_record(const struct row *r);
bool row_live(const struct row *r); /* has a live record */

/* What a scan asks of a row: not its versions, so that nothing is allocated but for the target of a symlink. */
struct row_brief {
	bool live;	/* has a live record, of which: */
	uint8_t kind;	/* enum record_kind */
	uint8_t place;	/* enum row_place */
	uint64_t seq;
	struct stamp stamp;
	int64_t recorded_ns;
	struct content content;
	char *target;	/* owned */
};

void row_brief_deinit(struct row_brief *r); /* and zero it */
int row_brief_copy(struct row_brief *ret, const struct row_brief *from); /* ret must be empty */
/* Out of what row_put wrote: what is passed over is checked as far as it must be to find the rest. */
void row_brief_get(struct cursor *c, struct row_brief *ret);

/* As above; an implied directory has no live record, any other row has a record, and ROW_ON_DISK a live one. */
void row_put(struct buf *b, const struct row *r);
void row_get(struct cursor *c, struct row *ret);
void stamp_put(struct buf *b, const struct stamp *s); /* but for exact, which a row has beside it */
void stamp_get(struct cursor *c, struct stamp *ret);
bool stamp_equal(const struct stamp *a, const struct stamp *b); /* nlink, generation and exact aside */

#endif
