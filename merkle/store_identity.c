/*
 * merkle/store_identity.c — whose index and whose root it is: the identity file, what the index has of it, and how both are
 * changed; see merkle/store_internal.h.
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
#include "merkle/store_internal.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/error.h"
#include "base/random.h"

#define IDENTITY_NEW "identity.new"
#define IDENTITY_BYTES_MAX 256
#define META_VERSION 2
#define META_VERSION_MIN 1 /* had `joined` as a flag, and no former ids */

/* --- the text --- */

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
		return store_refused(r);
	r = file_generation(fd, &generation);
	if (r < 0)
		return store_refused(r);
	r = file_system_id(fd, &file_system);
	if (r < 0)
		return store_refused(r);
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
		return r == FILE_UNSUPPORTED ? -EBADMSG : store_refused(r);
	r = file_read(fd, text, IDENTITY_BYTES_MAX, 0, &n);
	if (r)
		return store_refused(r);
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

/* --- in the index --- */

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

int store_meta_read(struct index *index, struct meta *ret)
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

/* --- changing it --- */

static int stage_identity(const struct store *s, struct identity *id)
{
	char text[IDENTITY_BYTES_MAX];
	cleanup_close int fd = -1;
	int r;

	r = file_unlink(s->syncd, IDENTITY_NEW);
	if (r && r != FILE_VANISHED)
		return store_refused(r);
	r = file_create(s->syncd, IDENTITY_NEW, 0600, &fd);
	if (r)
		return store_refused(r);
	identity_text(id, text);
	r = file_write(fd, text, strlen(text), 0);
	if (!r)
		r = store_give(s, fd);
	if (!r)
		r = store_refused(file_fsync(fd));
	if (!r)
		r = identity_locate(fd, id);
	return r ? r : store_sync_directory(s->syncd);
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

	r = file_rename_replace(s->syncd, IDENTITY_NEW, s->syncd, STORE_IDENTITY);
	if (r && r != FILE_VANISHED)
		return store_refused(r);
	r = store_sync_directory(s->syncd);
	if (!r)
		r = identity_read(s->syncd, STORE_IDENTITY, &file);
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

int store_identify(struct store *s, const struct store_options *options)
{
	struct identity file;
	struct meta m;
	bool damaged;
	int r;

	r = identity_read(s->syncd, STORE_IDENTITY, &file);
	damaged = r == -EBADMSG && file.ino;
	if (!r || damaged)
		r = store_meta_read(s->index, &m);
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

int store_check_identity(const struct store *s)
{
	struct identity file;
	int r = identity_read(s->syncd, STORE_IDENTITY, &file);

	if (!r && !file.replica)
		r = s->state_dir >= 0 ? STORE_FOREIGN : -EBADMSG;
	return r;
}

/* --- what is known of it --- */

static struct meta meta_of(const struct store *s)
{
	pthread_mutex_t *mutex = (pthread_mutex_t *)&s->mutex;
	struct meta m;

	pthread_mutex_lock(mutex);
	m = s->meta;
	pthread_mutex_unlock(mutex);
	return m;
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

int store_check_identity_file(const struct store *s, int syncd)
{
	for (;;) {
		struct identity_inodes before = identity_inodes(s), after;
		struct file_stat st;
		int r = file_stat_at(syncd, STORE_IDENTITY, &st);

		if (r < 0)
			return r;
		if (!r && (st.ino == before.now || st.ino == before.coming))
			return 0;
		after = identity_inodes(s);
		if (after.now == before.now && after.coming == before.coming)
			return STORE_ROOT_CHANGED;
	}
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
