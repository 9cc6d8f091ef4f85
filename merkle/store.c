/*
 * merkle/store.c — a replica's places and its identity; see merkle/store.h.
 *
 * Ids stand in two places, the identity file and the index, and change in this order:
 *
 *   1. .syncd/identity.new written, fsynced, its directory fsynced
 *   2. index commits: the new ids with what identifies the new file, `pending`, and the ids and
 *      file before
 *   3. identity.new is renamed over identity, directory fsynced
 *   4. index commits: not pending any more
 *
 * A crash before 2 leaves a stray identity.new, which means nothing. After 2 the index knows both
 * sides of the rename, so that the next open can tell "not renamed yet" (finished then) from a file
 * or an index that came from elsewhere. Everything happens under the lock.
 */
#include "merkle/store.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/random.h"

#define IDENTITY "identity"
#define IDENTITY_NEW "identity.new"
#define IDENTITY_BYTES_MAX 256
#define LOCK "lock"
#define LOCK_TRIES 5 /* store_lock_holder holds the lock for a moment when it looks */
#define WANTED "wanted"
#define META_VERSION 2
#define META_VERSION_MIN 1 /* had `joined` as a flag, and no former ids */
#define PATH_TEXT_MAX 4096

static const char cachedir_tag[] = "Signature: 8a477f597d28d172789f06886806bc55\n"
				   "# syncd keeps its state here: nothing that a backup needs.\n";

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
	struct index *index;
	bool created, copied, rebuilding, identity_remade;
	bool rebuilt; /* once: `rebuild` tells */
	struct rebuild rebuild;
	pthread_mutex_t changing; /* held by who changes meta, all the while */
	pthread_mutex_t mutex;	  /* over meta itself: for a moment only, as loops ask for it */
	struct meta meta;
	uint64_t coming; /* beside it: inode of the identity file that is about to take the place of the one that meta names; 0: none */
};

DEFINE_CLEANUP(struct store *, store_close)

/* A file outcome or error as one of ours, where none is expected. */
static int refused(int r)
{
	switch (r) {
	case FILE_DENIED:
	case -EACCES:
	case -EPERM:
		return STORE_DENIED;
	case -EROFS:
		return STORE_READ_ONLY;
	case FILE_VANISHED:
		return -ENOENT;
	case FILE_EXISTS:
		return -EEXIST;
	case FILE_OUTSIDE:
		return -ELOOP;
	case FILE_BUSY:
		return -EBUSY;
	}
	return r > 0 ? -EIO : r;
}

/* --- identity: the text --- */

static void identity_text(const struct identity *id, char *ret)
{
	snprintf(ret, IDENTITY_BYTES_MAX,
		"syncd identity 1\nfolder %016" PRIx64 "\nreplica %016" PRIx64 "\nhash %s\n",
		id->folder, id->replica, hash_algorithm_name(id->algorithm));
}

/* Strict: what is written back must be the same bytes. */
static int identity_parse(const char *text, struct identity *ret)
{
	char again[IDENTITY_BYTES_MAX], hash[16];
	struct identity id = {0};
	int version;

	if (sscanf(text, "syncd identity %9d\n", &version) == 1 && version != 1)
		return -EPROTONOSUPPORT;
	if (sscanf(text,
		    "syncd identity 1\nfolder %16" SCNx64 "\nreplica %16" SCNx64 "\nhash %15s\n",
		    &id.folder, &id.replica, hash) != 3)
		return -EBADMSG;
	if (hash_algorithm_parse(hash, &id.algorithm))
		return -EPROTONOSUPPORT;
	identity_text(&id, again);
	if (!id.folder || !id.replica || strcmp(text, again))
		return -EBADMSG;
	*ret = id;
	return 0;
}

/* What the open identity file has that no copy of it has. */
static int identity_locate(int fd, struct identity *ret)
{
	struct file_stat st;
	uint64_t generation = 0, file_system = 0;
	int r;

	r = file_stat_fd(fd, &st);
	if (r)
		return refused(r);
	r = file_generation(fd, &generation);
	if (r < 0)
		return refused(r);
	r = file_system_id(fd, &file_system);
	if (r < 0)
		return refused(r);
	ret->ino = st.ino;
	ret->btime_ns = st.btime_ns;
	ret->generation = generation;
	ret->file_system = file_system;
	return 0;
}

/* Reads .syncd/name. 0 with replica == 0: there is none. -EBADMSG: damaged; *ret says where the file
 * is, if it is one (ino). */
static int identity_read(int syncd, const char *name, struct identity *ret)
{
	char text[IDENTITY_BYTES_MAX + 1];
	struct identity id = {0};
	cleanup_close int fd = -1;
	size_t n;
	int r, located;

	*ret = id;

	r = file_open_read(syncd, name, &fd);
	if (r == FILE_VANISHED)
		return 0;
	if (r)
		return r == FILE_UNSUPPORTED ? -EBADMSG : refused(r);
	r = file_read(fd, text, IDENTITY_BYTES_MAX, 0, &n);
	if (r)
		return refused(r);
	text[n] = '\0';
	r = strlen(text) == n ? identity_parse(text, &id) : -EBADMSG;
	if (r && r != -EBADMSG)
		return r;
	located = identity_locate(fd, &id);
	if (located)
		return located;
	*ret = id;
	return r;
}

static bool same_ids(const struct identity *a, const struct identity *b)
{
	return a->folder == b->folder && a->replica == b->replica && a->algorithm == b->algorithm;
}

static bool unknown_or_same(uint64_t a, uint64_t b)
{
	return !a || !b || a == b;
}

static bool same_file(const struct identity *a, const struct identity *b)
{
	return a->ino == b->ino && unknown_or_same(a->generation, b->generation) &&
	       unknown_or_same((uint64_t)a->btime_ns, (uint64_t)b->btime_ns) &&
	       unknown_or_same(a->file_system, b->file_system);
}

static bool same_identity(const struct identity *a, const struct identity *b)
{
	return a->replica && b->replica && same_ids(a, b) && same_file(a, b);
}

/* --- identity: in the index --- */

static void identity_put(struct buf *b, const struct identity *id)
{
	put_u64(b, id->folder);
	put_u64(b, id->replica);
	put_u8(b, id->algorithm);
	put_u64(b, id->ino);
	put_u64(b, id->generation);
	put_u64(b, id->file_system);
	put_u64(b, (uint64_t)id->btime_ns);
}

static void identity_get(struct cursor *c, struct identity *ret)
{
	ret->folder = get_u64(c);
	ret->replica = get_u64(c);
	ret->algorithm = get_u8(c);
	ret->ino = get_u64(c);
	ret->generation = get_u64(c);
	ret->file_system = get_u64(c);
	ret->btime_ns = (int64_t)get_u64(c);
}

static int meta_decode(const struct buf *b, struct meta *ret)
{
	struct cursor c = cursor_over(b->data, b->len);
	struct meta m = {0};
	uint8_t version = get_u8(&c), flags;

	if (version < META_VERSION_MIN || version > META_VERSION)
		return -EPROTONOSUPPORT;
	flags = get_u8(&c);
	m.pending = flags & 2;
	m.copied = flags & 4;
	/* what version 1 had not joined may have been greeted, and its id adopted */
	m.standing = version > 1 ? get_u8(&c) : flags & 1 ? STORE_JOINED : STORE_OFFERED;
	identity_get(&c, &m.now);
	identity_get(&c, &m.before);
	m.n_former = version > 1 ? get_u8(&c) : 0;
	if (m.n_former > STORE_FORMER_MAX)
		cursor_fail(&c);
	for (size_t i = 0; i < m.n_former && !c.failed; i++)
		m.former[i] = get_u64(&c);
	m.left = version > 1 ? get_u32(&c) : 0;
	if (flags > 7 || (version > 1 && flags & 1) || m.standing > STORE_JOINED || !m.now.replica ||
		!hash_algorithm_known((uint8_t)m.now.algorithm))
		cursor_fail(&c);
	if (cursor_finish(&c))
		return -EBADMSG;
	*ret = m;
	return 0;
}

/* 0 with now.replica == 0: there is none. */
static int meta_read(struct index *index, struct meta *ret)
{
	struct index_txn *t;
	struct buf b = BUF_INIT;
	int r;

	r = index_begin_read(index, &t);
	if (r)
		return r;
	r = index_meta_get(t, INDEX_META_IDENTITY, &b);
	index_abort(t);
	if (r == INDEX_ABSENT) {
		*ret = (struct meta){0};
		r = 0;
	} else if (r == 0) {
		r = meta_decode(&b, ret);
	}
	buf_deinit(&b);
	return r;
}

static int meta_store(struct index_txn *w, const struct meta *m)
{
	struct buf b = BUF_INIT;
	int r;

	put_u8(&b, META_VERSION);
	put_u8(&b, (uint8_t)(m->pending << 1 | m->copied << 2));
	put_u8(&b, (uint8_t)m->standing);
	identity_put(&b, &m->now);
	identity_put(&b, &m->before);
	put_u8(&b, (uint8_t)m->n_former);
	for (size_t i = 0; i < m->n_former; i++)
		put_u64(&b, m->former[i]);
	put_u32(&b, m->left);
	r = buf_error(&b);
	if (!r)
		r = index_meta_put(w, INDEX_META_IDENTITY, b.data, b.len);
	buf_deinit(&b);
	return r;
}

static int meta_write(struct index *index, const struct meta *m)
{
	struct index_txn *w;
	int r;

	r = index_begin_write(index, &w);
	if (r)
		return r;
	r = index_set_key(w, m->now.folder, m->now.algorithm);
	if (!r)
		r = meta_store(w, m);
	if (r) {
		index_abort(w);
		return r;
	}
	return index_commit(&w);
}

/* --- changing the identity --- */

/* Give what we made as root to the owner of the root directory. */
static int give(const struct store *s, int fd)
{
	if (geteuid() || !s->root_stat.uid)
		return 0;
	return refused(file_chown_fd(fd, s->root_stat.uid, s->root_stat.gid));
}

static int sync_directory(int fd)
{
	int r = file_fsync(fd);

	return r == FILE_UNSUPPORTED ? 0 : refused(r);
}

static int stage_identity(const struct store *s, struct identity *id)
{
	char text[IDENTITY_BYTES_MAX];
	cleanup_close int fd = -1;
	int r;

	r = file_unlink(s->syncd, IDENTITY_NEW);
	if (r && r != FILE_VANISHED)
		return refused(r);
	r = file_create(s->syncd, IDENTITY_NEW, 0600, &fd);
	if (r)
		return refused(r);
	identity_text(id, text);
	r = file_write(fd, text, strlen(text), 0);
	if (!r)
		r = give(s, fd);
	if (!r)
		r = refused(file_fsync(fd));
	if (!r)
		r = identity_locate(fd, id);
	return r ? r : sync_directory(s->syncd);
}

static int write_down(struct store *s, const struct meta *m)
{
	int r = meta_write(s->index, m);

	if (r)
		return r;
	pthread_mutex_lock(&s->mutex);
	s->meta = *m;
	pthread_mutex_unlock(&s->mutex);
	return 0;
}

/* Between the renaming and meta's change the file is another one than meta names. */
static void set_coming(struct store *s, uint64_t ino)
{
	pthread_mutex_lock(&s->mutex);
	s->coming = ino;
	pthread_mutex_unlock(&s->mutex);
}

/* Steps 3 and 4. */
static int settle(struct store *s, const struct meta *pending)
{
	struct meta m = *pending;
	struct identity file;
	int r;

	r = file_rename_replace(s->syncd, IDENTITY_NEW, s->syncd, IDENTITY);
	if (r && r != FILE_VANISHED)
		return refused(r);
	r = sync_directory(s->syncd);
	if (!r)
		r = identity_read(s->syncd, IDENTITY, &file);
	if (r)
		return r;
	if (!same_identity(&file, &m.now))
		return -EIO;
	m.pending = m.copied = false;
	m.before = (struct identity){0};
	return write_down(s, &m);
}

/* Take on the ids of `m` (its file is made here); `before` is what the identity file is at
 * present. */
static int adopt(struct store *s, struct meta m, const struct identity *before)
{
	int r;

	m.before = *before;
	m.pending = true;
	r = stage_identity(s, &m.now);
	if (!r)
		r = meta_write(s->index, &m);
	if (r)
		return r;
	set_coming(s, m.now.ino);
	r = settle(s, &m);
	set_coming(s, 0);
	return r;
}

/* The index names ids that the identity file does not have (yet): true if a rename is all that is
 * missing. */
static bool only_rename_missing(
	const struct store *s, const struct meta *m, const struct identity *file)
{
	struct identity staged;

	if (!m->pending || (file->replica && !same_identity(file, &m->before)))
		return false;
	return identity_read(s->syncd, IDENTITY_NEW, &staged) == 0 &&
	       same_identity(&staged, &m->now);
}

static int begin_as_copy(struct store *s, const struct meta *m, const struct identity *file)
{
	struct meta copy = *m;

	copy.now = (struct identity){
		.folder = m->now.folder, .replica = random_id(), .algorithm = m->now.algorithm};
	copy.copied = s->copied = true;
	return adopt(s, copy, file);
}

static int begin_anew(struct store *s, const struct identity *file, enum hash_algorithm algorithm)
{
	struct meta m = {
		.now = {.folder = file->replica ? file->folder : random_id(),
			.replica = random_id(),
			.algorithm = file->replica ? file->algorithm : algorithm},
		.standing = file->replica ? STORE_JOINED : STORE_NEW,
	};

	s->created = true;
	return adopt(s, m, file);
}

/* The text of the identity file is damaged; the index knows what it was. `file`: where it is. */
static int remake_identity(struct store *s, const struct meta *m, const struct identity *file)
{
	struct meta again = *m;

	s->identity_remade = true;
	if (!same_file(file, &m->now))
		return s->state_dir >= 0 ? STORE_FOREIGN : begin_as_copy(s, m, file);
	again.now.generation = again.now.file_system = 0;
	return adopt(s, again, file);
}

/* Do root and index belong together? See the table in the header. */
static int identify(struct store *s, const struct store_options *options)
{
	struct identity file;
	struct meta m;
	bool damaged;
	int r;

	r = identity_read(s->syncd, IDENTITY, &file);
	damaged = r == -EBADMSG && file.ino;
	if (!r || damaged)
		r = meta_read(s->index, &m);
	if (r)
		return r;
	if (!m.now.replica) {
		if (damaged)
			return -EBADMSG;
		if (!options->create && !s->rebuilding)
			return STORE_NO_INDEX;
		return begin_anew(s, &file, options->algorithm ? options->algorithm : HASH_SHA256);
	}
	if (same_identity(&file, &m.now) || only_rename_missing(s, &m, &file)) {
		s->copied = m.copied;
		s->meta = m;
		return m.pending ? settle(s, &m) : 0;
	}
	if (damaged)
		return remake_identity(s, &m, &file);
	if (!file.replica) {
		if (s->state_dir >= 0)
			return STORE_FOREIGN;
		return options->create ? begin_as_copy(s, &m, &file) : STORE_NO_INDEX;
	}
	if (same_ids(&file, &m.now) || (m.pending && same_ids(&file, &m.before)))
		return begin_as_copy(s, &m, &file);
	return STORE_FOREIGN;
}

/* --- places --- */

/* `path` made absolute: what a change of directory must not change. */
static int absolute(const char *path, char **ret)
{
	char here[PATH_TEXT_MAX], *joined = NULL;

	if (*path == '/') {
		*ret = strdup(path);
		return *ret ? 0 : -ENOMEM;
	}
	if (!getcwd(here, sizeof(here)))
		return -errno;
	if (asprintf(&joined, "%s/%s", here, path) < 0)
		return -ENOMEM;
	*ret = joined;
	return 0;
}

static bool same_object(const struct file_stat *a, const struct file_stat *b)
{
	return a->ino == b->ino && a->dev == b->dev;
}

/* Look at each directory above `path` on its mount; `see` returns non-zero to stop, which is passed
 * on. Directories that we may not read are passed over. */
static int look_above(
	const char *path, int (*see)(int dir, const struct file_stat *st, void *data), void *data)
{
	char up[PATH_TEXT_MAX];
	struct file_stat st, below = {0};
	size_t n = strlen(path);
	int r;

	if (n >= sizeof(up))
		return -ENAMETOOLONG;
	memcpy(up, path, n + 1);
	for (bool first = true;; first = false) {
		cleanup_close int fd = -1;

		r = file_open_directory(up, &fd);
		if (r < 0 && r != -ENAMETOOLONG)
			return r;
		if (r == 0) {
			r = file_stat_fd(fd, &st);
			if (r)
				return refused(r);
			if (!first && below.ino &&
				(st.dev != below.dev || same_object(&st, &below)))
				return 0;
			r = first ? 0 : see(fd, &st, data);
			if (r)
				return r;
			below = st;
		}
		if (n + 4 > sizeof(up))
			return 0;
		memcpy(up + n, "/..", 4);
		n += 3;
	}
}

/* Is there a folder's .syncd in this directory? Only its owner's counts: in a directory like /tmp
 * anyone could make one. */
static int see_folder(int dir, const struct file_stat *st, void *data)
{
	cleanup_close int fd = -1;
	struct file_stat inner;
	int r;

	(void)data;
	if (file_stat_at(dir, PATH_STATE_NAME, &inner) || inner.kind != FILE_KIND_DIRECTORY ||
		inner.uid != st->uid)
		return 0;
	r = file_open_directory_at(dir, PATH_STATE_NAME, &fd);
	if (r == FILE_DENIED)
		return STORE_OVERLAP;
	return !r && file_stat_at(fd, IDENTITY, &inner) == 0 ? STORE_OVERLAP : 0;
}

static int see_root(int dir, const struct file_stat *st, void *data)
{
	(void)dir;
	return same_object(st, data) ? STORE_OVERLAP : 0;
}

static int open_root(struct store *s, const char *root)
{
	int r;

	r = absolute(root, &s->path);
	if (r)
		return r;
	r = file_open_directory(s->path, &s->root);
	if (r)
		return r == FILE_VANISHED ? STORE_NO_ROOT : refused(r);
	r = file_stat_fd(s->root, &s->root_stat);
	return r ? refused(r) : look_above(s->path, see_folder, NULL);
}

/* Open a directory, made if there is none. *ret_made: by us. */
static int open_made(const struct store *s, int dir, const char *name, int *ret_fd, bool *ret_made)
{
	cleanup_close int fd = -1;
	int r, opened, tries = 0;

	do { /* somebody who empties the trash may remove it in between */
		r = file_mkdir(dir, name, 0700);
		if (r && r != FILE_EXISTS && r != FILE_DENIED && r != -EROFS)
			return refused(r);
		opened = file_open_directory_at(dir, name, &fd);
	} while (opened == FILE_VANISHED && r >= 0 && r != FILE_DENIED && ++tries < 4);
	*ret_made = r == 0;
	if (opened && (r == FILE_DENIED || r == -EROFS))
		return refused(r);
	if (opened)
		return opened == FILE_VANISHED ? -ENOTDIR : refused(opened);
	if (*ret_made) {
		r = give(s, fd);
		if (r)
			return r;
	}
	*ret_fd = steal_fd(fd);
	return 0;
}

static int open_syncd(struct store *s, bool create)
{
	struct file_stat st;
	bool made = false;
	int r;

	r = file_stat_at(s->root, PATH_STATE_NAME, &st);
	if (r == FILE_VANISHED && !create)
		return STORE_NO_INDEX;
	if (r && r != FILE_VANISHED)
		return refused(r);
	r = open_made(s, s->root, PATH_STATE_NAME, &s->syncd, &made);
	if (r)
		return r;
	r = file_stat_fd(s->syncd, &st);
	if (r)
		return refused(r);
	if (st.uid != s->root_stat.uid && st.uid && st.uid != geteuid())
		return STORE_DENIED;
	if (st.mode & 0077) {
		/* an outcome: this file system has no modes, and hides nothing anyway */
		r = file_chmod_fd(s->syncd, st.mode & 0700);
		if (r < 0)
			return refused(r);
	}
	if (!made)
		return 0;
	r = file_set_nodump(s->syncd);
	return r < 0 ? refused(r) : sync_directory(s->root);
}

static int open_or_create(
	const struct store *s, int dir, const char *name, int *ret_fd, bool *ret_made)
{
	cleanup_close int fd = -1;
	int r;

	*ret_made = false;
	r = file_open_write(dir, name, &fd);
	if (r == FILE_VANISHED) {
		r = file_create(dir, name, 0600, &fd);
		if (r == FILE_EXISTS) /* someone else just did */
			r = file_open_write(dir, name, &fd);
		else if (!r)
			*ret_made = true;
	}
	if (r)
		return refused(r);
	if (*ret_made) {
		r = give(s, fd);
		if (r)
			return r;
	}
	*ret_fd = steal_fd(fd);
	return 0;
}

static int take_lock(int fd)
{
	const struct timespec pause = {.tv_nsec = 20 * CLOCK_NS_PER_MS};
	int r = 0;

	for (int k = 0; k < LOCK_TRIES; k++) {
		r = file_lock(fd);
		if (r != FILE_BUSY)
			return refused(r);
		nanosleep(&pause, NULL);
	}
	return STORE_LOCKED;
}

static int write_holder(int fd, const char *holder)
{
	cleanup_free char *text = NULL;
	int n = asprintf(&text, "%ld %s\n", (long)getpid(), holder ? holder : "");
	int r;

	if (n < 0) {
		text = NULL;
		return -ENOMEM;
	}
	/* in this order a reader never finds less than a whole line */
	r = file_write(fd, text, (size_t)n, 0);
	return refused(r ? r : file_truncate(fd, (uint64_t)n));
}

static int lock_store(struct store *s, const char *holder)
{
	bool made;
	int r;

	if (holder && (strlen(holder) > STORE_HOLDER_BYTES_MAX || strchr(holder, '\n')))
		return -EINVAL;
	r = open_or_create(s, s->syncd, LOCK, &s->lock_fd, &made);
	if (!r)
		r = take_lock(s->lock_fd);
	if (!r && file_unlink(s->syncd, WANTED) < 0)
		r = -EIO;
	return r ? r : write_holder(s->lock_fd, holder);
}

static int write_cachedir_tag(const struct store *s)
{
	cleanup_close int fd = -1;
	bool made;
	int r;

	r = open_or_create(s, s->syncd, "CACHEDIR.TAG", &fd, &made);
	if (r || !made)
		return r;
	return refused(file_write(fd, cachedir_tag, sizeof(cachedir_tag) - 1, 0));
}

static int open_places(struct store *s)
{
	bool made;
	int r;

	r = open_made(s, s->syncd, "staging", &s->staging, &made);
	if (!r)
		r = open_made(s, s->syncd, "trash", &s->trash, &made);
	if (!r)
		r = write_cachedir_tag(s);
	if (r)
		return r;
	r = file_probe(s->staging, &s->abilities);
	if (r == -ENOSPC || r == -EDQUOT) {
		/* a full disk must be told, not end us: promise nothing; but a symlink that can't be made now is no
		 * symlink that never can be */
		s->abilities = (struct file_abilities){.symlink = true, .time_granularity_ns = 2 * CLOCK_NS_PER_S};
		r = 0;
	}
	return refused(r);
}

/* --- the index --- */

static int open_state_dir(struct store *s, const char *path, bool create)
{
	cleanup_free char *full = NULL;
	cleanup_close int parent = -1;
	char *slash;
	bool made;
	int r;

	r = absolute(path, &full);
	if (r)
		return r;
	for (size_t n = strlen(full); n > 1 && full[n - 1] == '/'; n--)
		full[n - 1] = '\0';
	r = file_open_directory(full, &s->state_dir);
	if (r == FILE_VANISHED && create) {
		slash = strrchr(full, '/');
		*slash = '\0';
		r = file_open_directory(*full ? full : "/", &parent);
		*slash = '/';
		if (!r) {
			r = open_made(s, parent, slash + 1, &s->state_dir, &made);
			return r || !made ? r : sync_directory(parent);
		}
	}
	return r == FILE_VANISHED ? STORE_NO_INDEX : refused(r);
}

static int check_state_dir(struct store *s, const char *path)
{
	cleanup_free char *full = NULL;
	struct file_stat st;
	int r;

	r = file_stat_fd(s->state_dir, &st);
	if (r)
		return refused(r);
	if (same_object(&st, &s->root_stat))
		return STORE_OVERLAP;
	r = absolute(path, &full);
	if (!r)
		r = look_above(full, see_root, &s->root_stat);
	return r ? r : take_lock(s->state_dir);
}

/* Only while the index is closed: closing a descriptor of lock.mdb takes LMDB's locks away. Where symlinks are none, there is one. */
static int give_index(const struct store *s, int dir)
{
	static const char *const names[] = {"data.mdb", "lock.mdb"};
	struct file_stat st;
	int r = 0;

	for (size_t k = 0; k < ARRAY_SIZE(names) && !r; k++) {
		cleanup_close int fd = -1;

		r = file_open_write(dir, names[k], &fd);
		if (r == FILE_VANISHED && k)
			return 0;
		if (!r)
			r = file_stat_fd(fd, &st);
		if (!r && !st.uid && st.nlink == 1)
			r = give(s, fd);
	}
	return refused(r);
}

static int open_index_in(struct store *s, bool create)
{
	int r, dir = s->index_dir;

	r = index_open(&s->index, dir, false);
	if (r == INDEX_MISSING && create) {
		r = index_open(&s->index, dir, true);
		if (!r && !geteuid() && s->root_stat.uid) {
			index_close(steal(s->index));
			r = give_index(s, dir);
			if (r)
				return r;
			r = index_open(&s->index, dir, false);
		}
		if (!r) /* what is committed lies under a name that must not go */
			r = sync_directory(dir);
	}
	return r == INDEX_MISSING ? STORE_NO_INDEX : refused(r);
}

/* Only the identity file says now that this is the root, and which folder it is of. */
static int check_identity(const struct store *s)
{
	struct identity file;
	int r = identity_read(s->syncd, IDENTITY, &file);

	if (!r && !file.replica)
		r = s->state_dir >= 0 ? STORE_FOREIGN : -EBADMSG;
	return r;
}

static int finish_rebuild(struct store *s)
{
	int r = check_identity(s);

	if (!r)
		r = rebuild_set_aside(s->index_dir, &s->rebuild);
	if (r)
		return r;
	r = open_index_in(s, true);
	if (r == -EBADMSG) { /* the new one, cut off while it was made */
		r = refused(file_unlink(s->index_dir, "data.mdb"));
		if (!r)
			r = open_index_in(s, true);
	} else if (r == -ENOSPC || r == -EDQUOT) {
		r = rebuild_make_room(s->index_dir);
		if (!r)
			r = open_index_in(s, true);
	}
	s->rebuilding = !r;
	return r;
}

static int begin_rebuild(struct store *s, const char *why)
{
	int r = check_identity(s);

	if (r)
		return r;
	r = rebuild_begin(s->index_dir, why, clock_wall_ns() / CLOCK_NS_PER_S, &s->rebuild);
	if (r == REBUILD_TOO_OFTEN)
		return STORE_FAILING;
	return r ? r : finish_rebuild(s);
}

/* An index that was committed to once does not become empty by itself. */
static bool was_emptied(const struct store *s)
{
	struct file_stat st;

	return file_stat_at(s->index_dir, "data.mdb", &st) == 0 && check_identity(s) == 0;
}

/* Open the index, and read from it who it is of: -EBADMSG if either can't be. */
static int try_index(struct store *s, bool create)
{
	struct meta m;
	int r;

	r = open_index_in(s, false);
	if (r == STORE_NO_INDEX && was_emptied(s))
		return -EBADMSG;
	if (r == STORE_NO_INDEX && create)
		r = open_index_in(s, true);
	if (!r)
		r = meta_read(s->index, &m);
	if (r == -EBADMSG)
		index_close(steal(s->index));
	return r;
}

static int open_index_dir(struct store *s, const struct store_options *options)
{
	bool made;
	int r;

	if (!options->state_dir)
		return open_made(s, s->syncd, "index", &s->index_dir, &made);
	r = open_state_dir(s, options->state_dir, options->create);
	if (!r)
		r = check_state_dir(s, options->state_dir);
	if (!r)
		r = refused(file_open_directory_at(s->state_dir, "", &s->index_dir));
	return r;
}

static int open_index(struct store *s, const struct store_options *options)
{
	char why[INDEX_CHECK_TEXT_BYTES] = "";
	int r = open_index_dir(s, options);

	if (!r) {
		r = rebuild_read(s->index_dir, &s->rebuild);
		s->rebuilt = !r;
		r = r < 0 ? r : 0;
	}
	if (r)
		return r;
	if (s->rebuild.aside)
		return finish_rebuild(s);
	r = try_index(s, options->create);
	if (r != -EBADMSG)
		return r;
	if (index_check(s->index_dir, why) != -EBADMSG)
		snprintf(why, sizeof(why), "it is empty, or does not say whose it is");
	return begin_rebuild(s, why);
}

static int end_rebuild(struct store *s)
{
	if (!s->rebuilding)
		return 0;
	s->rebuilt = true;
	return rebuild_end(s->index_dir, &s->rebuild);
}

/* --- opening and closing --- */

static int store_new(struct store **ret)
{
	struct store *s = calloc(1, sizeof(*s));
	int r;

	if (!s)
		return -ENOMEM;
	r = pthread_mutex_init(&s->mutex, NULL);
	if (!r) {
		r = pthread_mutex_init(&s->changing, NULL);
		if (r)
			pthread_mutex_destroy(&s->mutex);
	}
	if (r) {
		free(s);
		return -r;
	}
	s->root = s->syncd = s->staging = s->trash = s->lock_fd = s->state_dir = s->index_dir = -1;
	*ret = s;
	return 0;
}

int store_open(struct store **ret, const char *root, const struct store_options *options)
{
	static const struct store_options plain = {0};
	cleanup(store_close_p) struct store *s = NULL;
	int r;

	if (!options)
		options = &plain;
	if (options->algorithm && !hash_algorithm_known((uint8_t)options->algorithm))
		return -EINVAL;
	r = store_new(&s);
	if (!r)
		r = open_root(s, root);
	if (!r)
		r = open_syncd(s, options->create);
	if (!r)
		r = lock_store(s, options->holder);
	if (!r)
		r = open_index(s, options);
	if (!r)
		r = identify(s, options);
	if (!r)
		r = end_rebuild(s);
	if (!r)
		r = open_places(s);
	if (r)
		return r;
	*ret = steal(s);
	return 0;
}

void store_close(struct store *s)
{
	if (!s)
		return;
	index_close(s->index);
	close_keep(s->staging);
	close_keep(s->trash);
	close_keep(s->syncd);
	close_keep(s->root);
	close_keep(s->index_dir);
	close_keep(s->state_dir);
	close_keep(s->lock_fd); /* last: whoever gets the lock finds all closed */
	pthread_mutex_destroy(&s->mutex);
	pthread_mutex_destroy(&s->changing);
	free(s->path);
	free(s);
}

static int read_holder(int fd, int64_t *ret_pid, char **ret_holder)
{
	cleanup_free char *text = malloc(STORE_HOLDER_BYTES_MAX + 32);
	char *end;
	long pid;
	size_t n;
	int r;

	if (!text)
		return -ENOMEM;
	r = file_read(fd, text, STORE_HOLDER_BYTES_MAX + 31, 0, &n);
	if (r)
		return refused(r);
	text[n] = '\0';
	text[strcspn(text, "\n")] = '\0';
	pid = strtol(text, &end, 10);
	end += *end == ' ';
	memmove(text, end, strlen(end) + 1);
	*ret_pid = pid > 0 ? pid : 0;
	*ret_holder = steal(text);
	return 0;
}

int store_lock_holder(const char *root, int64_t *ret_pid, char **ret_holder)
{
	cleanup_close int dir = -1, syncd = -1, fd = -1;
	int r;

	r = file_open_directory(root, &dir);
	if (r)
		return r == FILE_VANISHED ? STORE_NO_ROOT : refused(r);
	r = file_open_directory_at(dir, PATH_STATE_NAME, &syncd);
	if (!r)
		r = file_open_read(syncd, LOCK, &fd);
	if (r)
		return r == FILE_VANISHED ? STORE_NO_INDEX : refused(r);
	r = file_lock(fd);
	if (r == FILE_BUSY)
		return read_holder(fd, ret_pid, ret_holder);
	return r ? refused(r) : STORE_NO_INDEX;
}

int store_ask_release(const char *root)
{
	cleanup_close int dir = -1, syncd = -1, fd = -1;
	int r = file_open_directory(root, &dir);

	if (!r)
		r = file_open_directory_at(dir, PATH_STATE_NAME, &syncd);
	if (!r)
		r = file_create(syncd, WANTED, 0600, &fd);
	return r == FILE_EXISTS ? 0 : r ? refused(r) : 0;
}

bool store_release_asked(const struct store *s)
{
	struct file_stat st;

	return file_stat_at(s->syncd, WANTED, &st) == 0;
}

int store_owner(const char *root, uint32_t *ret_uid)
{
	cleanup_close int dir = -1;
	struct file_stat st;
	int r;

	r = file_open_directory(root, &dir);
	if (r)
		return r == FILE_VANISHED ? STORE_NO_ROOT : refused(r);
	r = file_stat_at(dir, PATH_STATE_NAME, &st);
	if (r == FILE_VANISHED)
		r = file_stat_fd(dir, &st);
	if (r)
		return refused(r);
	*ret_uid = st.uid;
	return 0;
}

/* --- what is known --- */

static struct meta meta_of(const struct store *s)
{
	pthread_mutex_t *mutex = (pthread_mutex_t *)&s->mutex;
	struct meta m;

	pthread_mutex_lock(mutex);
	m = s->meta;
	pthread_mutex_unlock(mutex);
	return m;
}

const char *store_path(const struct store *s)
{
	return s->path;
}

int store_root(const struct store *s)
{
	return s->root;
}

int store_staging(const struct store *s)
{
	return s->staging;
}

int store_trash(const struct store *s)
{
	return s->trash;
}

int store_renew_trash(struct store *s)
{
	cleanup_close int fd = -1;
	bool made;
	int r = open_made(s, s->syncd, "trash", &fd, &made);

	if (!r)
		r = sync_directory(s->syncd);
	if (!r && dup3(fd, s->trash, O_CLOEXEC) < 0) /* whoever uses it now has the old one or the new one */
		r = -errno;
	return r;
}

struct index *store_index(const struct store *s)
{
	return s->index;
}

const struct file_abilities *store_abilities(const struct store *s)
{
	return &s->abilities;
}

enum hash_algorithm store_algorithm(const struct store *s)
{
	return meta_of(s).now.algorithm;
}

uint64_t store_folder_id(const struct store *s)
{
	return meta_of(s).now.folder;
}

uint64_t store_replica_id(const struct store *s)
{
	return meta_of(s).now.replica;
}

bool store_joined(const struct store *s)
{
	return meta_of(s).standing == STORE_JOINED;
}

void store_folder(const struct store *s, struct store_folder *ret)
{
	struct meta m = meta_of(s);

	*ret = (struct store_folder){.id = m.now.folder,
		.algorithm = m.now.algorithm,
		.standing = m.standing,
		.n_former = m.n_former,
		.left = m.left};
	memcpy(ret->former, m.former, sizeof(ret->former));
}

bool store_folder_was(const struct store_folder *f, uint64_t id)
{
	for (size_t i = 0; i < f->n_former; i++)
		if (f->former[i] == id)
			return true;
	return false;
}

bool store_created(const struct store *s)
{
	return s->created;
}

bool store_copied(const struct store *s)
{
	return s->copied;
}

const struct rebuild *store_rebuilt(const struct store *s)
{
	return s->rebuilt ? &s->rebuild : NULL;
}

bool store_rebuilt_now(const struct store *s)
{
	return s->rebuilding;
}

bool store_damaged_kept(const struct store *s)
{
	return rebuild_kept(s->index_dir);
}

bool store_identity_remade(const struct store *s)
{
	return s->identity_remade;
}

int store_check_index(const struct store *s, char *ret_what)
{
	index_distrust(s->index);
	return index_check(s->index_dir, ret_what);
}

/* --- later --- */

struct identity_inodes {
	uint64_t now, coming;
};

static struct identity_inodes identity_inodes(const struct store *s)
{
	pthread_mutex_t *mutex = (pthread_mutex_t *)&s->mutex;
	struct identity_inodes inodes;

	pthread_mutex_lock(mutex);
	inodes = (struct identity_inodes){s->meta.now.ino, s->coming};
	pthread_mutex_unlock(mutex);
	return inodes;
}

/* Is it the file that meta names? Another thread may be putting another one there. */
static int check_identity_file(const struct store *s, int syncd)
{
	for (;;) {
		struct identity_inodes before = identity_inodes(s), after;
		struct file_stat st;
		int r = file_stat_at(syncd, IDENTITY, &st);

		if (r < 0)
			return r;
		if (!r && (st.ino == before.now || st.ino == before.coming))
			return 0;
		after = identity_inodes(s);
		if (after.now == before.now && after.coming == before.coming)
			return STORE_ROOT_CHANGED;
	}
}

int store_check_root(const struct store *s)
{
	cleanup_close int root = -1, syncd = -1;
	struct file_stat st;
	int r;

	r = file_open_directory(s->path, &root);
	if (!r)
		r = file_stat_fd(root, &st);
	if (!r && !same_object(&st, &s->root_stat))
		return STORE_ROOT_CHANGED;
	if (!r)
		r = file_open_directory_at(root, PATH_STATE_NAME, &syncd);
	if (r)
		return r < 0 ? r : STORE_ROOT_CHANGED;
	return check_identity_file(s, syncd);
}

/* Other ids than before: their file is made anew. */
static int change(struct store *s, struct meta m)
{
	struct identity before = s->meta.now;
	int r = store_check_root(s);

	if (r)
		return r;
	if (same_ids(&m.now, &before))
		return write_down(s, &m);
	m.now.generation = m.now.file_system = 0;
	return adopt(s, m, &before);
}

static void note_former(struct meta *m, uint64_t id, bool left)
{
	size_t i = 0;

	while (i < m->n_former && m->former[i] != id)
		i++;
	if (i == STORE_FORMER_MAX) {
		memmove(m->former, m->former + 1, --i * sizeof(*m->former));
		m->left >>= 1;
		m->n_former--;
	}
	if (i == m->n_former)
		m->former[m->n_former++] = id;
	m->left |= (uint32_t)left << i;
}

static int join(struct store *s, const struct store_folder *was, const struct store_folder *now)
{
	struct meta m = s->meta;
	bool moves = now->id != was->id;

	if (m.now.folder != was->id || (moves && m.standing != was->standing))
		return STORE_MOVED;
	if (now->algorithm != m.now.algorithm && (!moves || m.standing == STORE_JOINED))
		return -EINVAL;
	if (moves && m.standing != STORE_NEW)
		note_former(&m, was->id, true);
	for (size_t i = 0; i < now->n_former; i++)
		note_former(&m, now->former[i], false);
	if (moves || now->standing > m.standing)
		m.standing = now->standing;
	m.now.folder = now->id;
	m.now.algorithm = now->algorithm;
	return change(s, m);
}

int store_join(struct store *s, const struct store_folder *was, const struct store_folder *now)
{
	int r;

	if (!now->id || !hash_algorithm_known((uint8_t)now->algorithm) || now->n_former > STORE_FORMER_MAX)
		return -EINVAL;
	pthread_mutex_lock(&s->changing);
	r = join(s, was, now);
	pthread_mutex_unlock(&s->changing);
	return r;
}

int store_renew_replica(struct store *s)
{
	struct meta m;
	int r;

	pthread_mutex_lock(&s->changing);
	m = s->meta;
	m.now.replica = random_id();
	r = change(s, m);
	pthread_mutex_unlock(&s->changing);
	return r;
}
