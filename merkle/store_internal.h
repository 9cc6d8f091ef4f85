/*
 * merkle/store_internal.h — what a store is made of: store.c (opening, closing, the index), store_identity.c (whose index and
 * root it is), store_places.c (directories and the lock). Nobody else includes it.
 */
#ifndef MERKLE_STORE_INTERNAL_H
#define MERKLE_STORE_INTERNAL_H

#include <pthread.h>

#include "merkle/store.h"

#define STORE_IDENTITY "identity" /* in .syncd */

/* What names a replica, and what copying its identity file can't carry along. */
struct identity {
	uint64_t folder;
	uint64_t replica; /* 0: there is no identity */
	enum hash_algorithm algorithm;
	uint64_t ino;		/* of the identity file, as all that follows */
	uint64_t generation;	/* 0: unknown */
	uint64_t file_system;	/* 0: unknown */
	int64_t btime_ns;
};

/* INDEX_META_IDENTITY. */
struct meta {
	struct identity now;
	struct identity before; /* while pending */
	enum store_standing standing;
	bool pending;
	bool copied; /* while pending: it comes about because the root was recognised as a copy */
	uint64_t former[STORE_FORMER_MAX];
	size_t n_former;
	uint32_t left;
};

struct store {
	char *path;
	int root, syncd, staging, trash, lock_fd;
	int state_dir; /* -1: the index is in .syncd */
	int index_dir;
	struct file_stat root_stat;
	struct file_abilities abilities;
	uint32_t mount; /* see store_mount; 0: unknown */
	struct index *index;
	bool created, copied, rebuilding, identity_remade;
	bool rebuilt; /* once: `rebuild` tells */
	struct rebuild rebuild;
	pthread_mutex_t changing; /* held by who changes meta, all the while */
	pthread_mutex_t mutex;	  /* over meta itself: for a moment only, as loops ask for it */
	struct meta meta;
	uint64_t coming; /* beside it: inode of the identity file that is about to take the place of the one that meta names; 0: none */
};

/* --- store_places.c: opening fills in the store's descriptors; closing is store_close's --- */

/* A file outcome or error as one of ours, where none is expected. */
int store_refused(int r);
int store_give(const struct store *s, int fd); /* what we made as root, to the owner of the root directory */
int store_sync_directory(int fd); /* 0 also where directories can't be synced */

int store_open_root(struct store *s, const char *root);
int store_open_syncd(struct store *s, bool create);
int store_lock(struct store *s, const char *holder);
int store_open_index_dir(struct store *s, const struct store_options *options);
int store_open_places(struct store *s); /* what is in .syncd beside the index */

/* --- store_identity.c --- */

/* Do root and index belong together? See the table in store.h. Makes or changes what must be. Under the lock. */
int store_identify(struct store *s, const struct store_options *options);
/* Without an index: only the identity file says that this is the root, and which folder it is of. 0; STORE_FOREIGN; -EBADMSG. */
int store_check_identity(const struct store *s);
/* Is the file in this .syncd the one that meta names? Another thread may be putting another one there. 0, STORE_ROOT_CHANGED. */
int store_check_identity_file(const struct store *s, int syncd);
/* Who the index is of. 0 with now.replica == 0: it does not say. -EBADMSG. */
int store_meta_read(struct index *index, struct meta *ret);

#endif
