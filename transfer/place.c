/*
 * transfer/place.c — see transfer/place.h.
 *
 *   look (stamp, lease) → exchange → look again → trash | conflict name | user's
 *
 * 1. A lease held from before the first look until after the second proves that nobody wrote in
 * between: whoever opens the file for writing waits. Without leases the stamp without its change
 * time must do, and where the stamp may be racily clean the content is hashed after the exchange.
 * 2. What came out of an exchange is never put back: a third party may have been there meanwhile.
 * 3. The stamp of a new object is taken after it is in place, and only believed if it still is what
 * was staged; else the row gets the staged one's, so that the next scan sees a user's edit of it.
 */
#include "transfer/place.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/defect.h"
#include "base/random.h"
#include "tombstones/conflict.h"
#include "tombstones/trash.h"

#define RACY_NS (2 * CLOCK_NS_PER_S) /* the coarsest clock of a file system */
#define CONFLICT_NUMBERS_MAX 10000
#define SPECIAL_BITS 06000 /* setuid, setgid */

/* --- what is to be synced --- */

void place_init(struct place *p, struct store *store, int64_t now_ns)
{
	*p = (struct place){.store = store, .now_ns = now_ns};
}

void place_deinit(struct place *p)
{
	sync_set_drop(&p->touched);
}

void place_touch(struct place *p, int fd)
{
	sync_set_add(&p->touched, fd);
}

static void touch_also(struct place *p, int fd)
{
	int copy = dup(fd);

	if (copy < 0)
		p->touched.many = true;
	else
		place_touch(p, copy);
}

int place_sync(struct place *p)
{
	return DEFECT(COMMIT_BEFORE_FSYNC) ? 0 : sync_set_run(&p->touched, store_staging(p->store));
}

/* --- outcomes --- */

void place_copy_deinit(struct place_copy *c)
{
	free(c->path);
	record_deinit(&c->state);
	if (c->nodes)
		scan_nodes_free(c->nodes, c->n_nodes);
	*c = (struct place_copy){0};
}

void place_outcome_deinit(struct place_outcome *o)
{
	for (size_t i = 0; i < o->n_copies; i++)
		place_copy_deinit(&o->copies[i]);
	free(o->copies);
	*o = (struct place_outcome){0};
}

static void result(struct place_outcome *o, enum apply_result r)
{
	o->result = r;
	o->error = 0;
}

/* A file outcome or errno that nobody foresaw. */
static void failed(struct place_outcome *o, int r)
{
	assert(r != 0);
	o->result = r == FILE_VANISHED ? APPLY_CHANGED : r == FILE_BUSY ? APPLY_BUSY : APPLY_FAILED;
	o->error = r;
}

/* --- small steps --- */

int place_move(int from_dir, const char *from, int to_dir, const char *to)
{
	struct file_stat st;
	int r = file_rename_noreplace(from_dir, from, to_dir, to);

	if (r != FILE_UNSUPPORTED)
		return r;
	r = file_link(from_dir, from, to_dir, to);
	if (r == 0)
		return file_unlink(from_dir, from);
	if (r != FILE_DENIED && r != FILE_UNSUPPORTED && r != FILE_IS_DIRECTORY)
		return r;
	/* Neither no-replace nor hard links (FAT): a look has to do. */
	r = file_stat_at(to_dir, to, &st);
	if (r == 0)
		return FILE_EXISTS;
	return r == FILE_VANISHED ? file_rename_replace(from_dir, from, to_dir, to) : r;
}

bool place_same_object(const struct stamp *a, const struct stamp *b)
{
	return a->ino == b->ino && a->size == b->size && a->mtime_ns == b->mtime_ns &&
	       a->mode == b->mode && a->uid == b->uid && a->gid == b->gid;
}

int place_same_content(struct place *p, int dir, const char *name, const struct record *record)
{
	struct chunk_tree_node *nodes = NULL;
	struct record state = {0};
	struct stamp stamp;
	size_t n_nodes = 0;
	int r = scan_look(p->store, dir, name, &state, &stamp, &nodes, &n_nodes);
	bool same = r == 0 && record_same_state(&state, record);

	if (r == 0) {
		record_deinit(&state);
		scan_nodes_free(nodes, n_nodes);
	}
	return r < 0 ? r : r == FILE_BUSY ? -EBUSY : same;
}

static int directory_empty(int dir, const char *name, bool *ret)
{
	cleanup_close int fd = -1;
	cleanup_file_dir struct file_dir *d = NULL;
	const char *entry;
	int r = file_open_directory_at(dir, name, &fd);

	if (r == 0)
		r = file_dir_open(fd, &d);
	if (r == 0)
		r = file_dir_next(d, &entry);
	if (r != 0 && r != FILE_END)
		return r;
	*ret = r == FILE_END;
	return 0;
}

/* Is the name listed exactly as we spell it? A file system that folds names finds it under another
 * spelling. */
static int name_listed(int dir, const char *name, bool *ret)
{
	cleanup_file_dir struct file_dir *d = NULL;
	const char *entry;
	int r = file_dir_open(dir, &d);

	*ret = false;
	while (r == 0 && !*ret) {
		r = file_dir_next(d, &entry);
		if (r == 0)
			*ret = strcmp(entry, name) == 0;
	}
	return r == FILE_END ? 0 : r;
}

/* --- attributes --- */

/* Does this file system keep such a mode? Tried out on an object of our own. */
static bool mode_kept(struct place *p, uint16_t mode)
{
	cleanup_close int fd = -1;
	int staging = store_staging(p->store);
	struct file_stat st;
	char name[48];
	bool kept = false;

	snprintf(name, sizeof(name), "apply-mode-%016" PRIx64, random_id());
	if (file_create(staging, name, 0600, &fd) != 0)
		return false;
	if (file_chmod_fd(fd, mode) == 0 && file_stat_fd(fd, &st) == 0)
		kept = st.mode == mode;
	(void)file_unlink(staging, name);
	return kept;
}

/* The stamp of what was set. Where the disk shows something else although it could show this, a
 * user's hand was there in between: his change must differ from the stamp. */
static int stamp_set(struct place *p, int fd, const struct record *r, bool timed, uint16_t mode,
	struct stamp *ret)
{
	int64_t grain = store_abilities(p->store)->time_granularity_ns;
	struct file_stat st;
	int e = file_stat_fd(fd, &st);

	if (e != 0)
		return e;
	stamp_of(&st, ret);
	if (st.mode != mode && mode_kept(p, mode))
		ret->mode = mode;
	if (timed && (st.mtime_ns - r->mtime_ns >= grain || r->mtime_ns - st.mtime_ns >= grain))
		ret->mtime_ns = r->mtime_ns;
	return 0;
}

/* What this disk or user cannot store stays in the record: outcomes are passed over, errors are
 * not. */
static int attributes_fd(
	struct place *p, int fd, const struct record *r, bool preserve_owner, struct stamp *ret)
{
	struct file_stat st;
	uint16_t mode = r->mode;
	bool directory = r->kind == RECORD_DIRECTORY, timed = false;
	int e = preserve_owner ? file_chown_fd(fd, r->uid, r->gid) : 0;

	if (e >= 0)
		e = file_stat_fd(fd, &st);
	if (e != 0)
		return e;
	/* A program that runs as its owner must not run as another owner than was meant; and where owners are not taken over
	 * a peer's word does not make one that runs as root. */
	if (!directory && (st.uid != r->uid || st.gid != r->gid || (!preserve_owner && (!st.uid || !st.gid))))
		mode &= (uint16_t)~SPECIAL_BITS;
	if (st.mode != mode)
		e = file_chmod_fd(fd, mode);
	if (e > 0)
		mode = st.mode; /* not ours to change */
	if (e >= 0 && !directory) {
		e = file_set_mtime_fd(fd, r->mtime_ns);
		timed = e == 0;
	}
	return e < 0 ? e : stamp_set(p, fd, r, timed, mode, ret);
}

static int attributes_symlink(
	int dir, const char *name, const struct record *r, bool preserve_owner)
{
	int e = preserve_owner ? file_chown_at(dir, name, r->uid, r->gid) : 0;

	if (e >= 0)
		e = file_set_mtime_at(dir, name, r->mtime_ns);
	return e < 0 ? e : 0;
}

/* --- staging --- */

static int stage_file(struct place *p, const struct intent *i, const struct record *r, bool fsync,
	struct file_stat *ret, uint64_t *ret_generation)
{
	struct stamp stamp;
	cleanup_close int fd = -1;
	int e = file_open_read(store_staging(p->store), i->staged, &fd);

	if (e == 0)
		e = file_stat_fd(fd, ret);
	if (e != 0)
		return e;
	if (ret->size != r->content.size)
		return -EBADMSG;
	e = attributes_fd(p, fd, r, i->preserve_owner, &stamp);
	if (e == 0)
		e = DEFECT(COMMIT_BEFORE_FSYNC) ? 0 : fsync ? file_fsync(fd) : file_start_writeback(fd);
	if (!fsync && e == FILE_UNSUPPORTED)
		e = 0;
	if (e == 0 && file_generation(fd, ret_generation) != 0)
		*ret_generation = 0;
	return e == 0 ? file_stat_fd(fd, ret) : e;
}

static int stage_symlink(
	struct place *p, const struct intent *i, const struct record *r, struct file_stat *ret)
{
	int staging = store_staging(p->store);
	int e = r->target ? file_symlink(r->target, staging, i->staged) : -EBADMSG;

	if (e == 0)
		e = attributes_symlink(staging, i->staged, r, i->preserve_owner);
	return e == 0 ? file_stat_at(staging, i->staged, ret) : e;
}

/* An implied directory: private while its record may still come; where its record is known to be gone it stays implied,
 * and is as open as the root. */
static int implied_mode(struct place *p, const struct intent *i, int fd)
{
	struct file_stat root;
	int e;

	if (!i->had_row)
		return 0;
	e = file_stat_fd(store_root(p->store), &root);
	return e == 0 ? file_chmod_fd(fd, root.mode & 0777) : e;
}

/* Private until all that goes into it is there: see place_finish_directory. */
static int stage_directory(struct place *p, const struct intent *i, const struct record *r,
	struct file_stat *ret, uint64_t *ret_generation)
{
	cleanup_close int fd = -1;
	int staging = store_staging(p->store);
	int e = file_mkdir(staging, i->staged, 0700);

	if (e == 0)
		e = file_open_directory_at(staging, i->staged, &fd);
	if (e == 0 && r && i->preserve_owner)
		e = file_chown_fd(fd, r->uid, r->gid);
	else if (e == 0 && !r)
		e = implied_mode(p, i, fd);
	if (e < 0 || fd < 0)
		return e;
	if (file_generation(fd, ret_generation) != 0)
		*ret_generation = 0;
	return file_stat_fd(fd, ret);
}

int place_stage(struct place *p, struct intent *i, const struct record *r, bool fsync)
{
	uint64_t generation = 0;
	struct file_stat st = {0};
	int e;

	i->new_kind = r ? r->kind : RECORD_DIRECTORY;
	if (i->new_kind == RECORD_FILE)
		e = stage_file(p, i, r, fsync, &st, &generation);
	else if (i->new_kind == RECORD_SYMLINK)
		e = stage_symlink(p, i, r, &st);
	else
		e = stage_directory(p, i, r, &st, &generation);
	if (e != 0)
		return e;
	stamp_of(&st, &i->staged_stamp);
	i->staged_stamp.generation = generation;
	return 0;
}

/* --- looking at what is there, and at what came out --- */

struct held {
	int fd;	     /* of a regular file that we may read, else -1 */
	bool leased; /* nobody writes to it until the lease is released */
	bool racy;   /* the stamp alone proves nothing */
	uint8_t kind;
	struct stamp stamp;
};

static void held_deinit(struct held *h)
{
	if (h->leased)
		(void)file_lease_release(h->fd);
	h->fd = close_keep(h->fd);
}

/* The lease is over; true if somebody opened the file for writing meanwhile, and waited. */
static bool held_release(struct held *h)
{
	bool broken = h->leased && file_lease_release(h->fd) == FILE_BUSY;

	h->leased = false;
	return broken;
}

/* A regular file: take the lease, then look again, so that what is seen holds until it is released.
 */
static bool hold_file(struct place *p, int dir, const char *name, const struct row *ours,
	struct held *h, struct place_outcome *o)
{
	struct file_stat st;
	uint64_t generation;
	int r = file_open_read(dir, name, &h->fd);

	if (r == FILE_UNSUPPORTED)
		return result(o, APPLY_CHANGED), false;
	if (r != 0 && r != FILE_DENIED)
		return failed(o, r), false;
	if (r == 0) {
		r = file_lease_read(h->fd);
		if (r < 0 || r == FILE_BUSY)
			return failed(o, r), false;
		h->leased = r == 0;
		r = file_stat_fd(h->fd, &st);
		if (r != 0)
			return failed(o, r), false;
		stamp_of(&st, &h->stamp);
		if (!stamp_equal(&h->stamp, &ours->stamp))
			return result(o, APPLY_CHANGED), false;
		if (ours->stamp.generation && file_generation(h->fd, &generation) == 0 &&
			generation != ours->stamp.generation)
			return result(o, APPLY_CHANGED), false;
	}
	h->racy = ours->recorded_ns - h->stamp.mtime_ns < RACY_NS ||
		  ours->recorded_ns - h->stamp.ctime_ns < RACY_NS;
	if (!h->racy)
		return true;
	r = place_same_content(p, dir, name, &ours->record);
	if (r < 0)
		return failed(o, r == -EBUSY ? FILE_BUSY : r), false;
	if (r == 0)
		result(o, APPLY_CHANGED);
	return r == 1;
}

static bool hold_symlink(int dir, const char *name, const struct row *ours, struct place_outcome *o)
{
	cleanup_free char *target = NULL;
	int r = file_readlink(dir, name, &target);

	if (r != 0)
		return failed(o, r == FILE_UNSUPPORTED ? FILE_VANISHED : r), false;
	if (!ours->record.target || strcmp(target, ours->record.target) != 0)
		return result(o, APPLY_CHANGED), false;
	return true;
}

/* Is dir/name exactly what the row says, and open for writing by nobody? Else *o says what. */
static bool hold(struct place *p, int dir, const char *name, const struct row *ours, struct held *h,
	struct place_outcome *o)
{
	struct file_stat st;
	int r = file_stat_at(dir, name, &st);

	*h = (struct held){.fd = -1};
	if (r != 0)
		return failed(o, r), false;
	stamp_of(&st, &h->stamp);
	h->kind = scan_kind(&st);
	if (h->kind != (ours->place == ROW_IMPLIED ? RECORD_DIRECTORY : ours->record.kind))
		return result(o, APPLY_CHANGED), false;
	if (DEFECT(LOOK_SKIPPED) && h->kind != RECORD_DIRECTORY)
		return true;
	if (h->kind == RECORD_DIRECTORY) {
		if (st.ino != ours->stamp.ino)
			result(o, APPLY_CHANGED);
		return st.ino == ours->stamp.ino;
	}
	if (!stamp_equal(&h->stamp, &ours->stamp))
		return result(o, APPLY_CHANGED), false;
	return h->kind == RECORD_FILE ? hold_file(p, dir, name, ours, h, o)
				      : hold_symlink(dir, name, ours, o);
}

/* Is what is now in staging what was held, unchanged? Ends the lease. */
static bool came_out(struct place *p, const char *name, const struct row *ours, struct held *h)
{
	int staging = store_staging(p->store);
	struct file_stat st;
	struct stamp stamp;
	bool leased = h->leased;

	if (file_stat_at(staging, name, &st) != 0 || scan_kind(&st) != h->kind)
		return false;
	stamp_of(&st, &stamp);
	if (h->kind == RECORD_DIRECTORY)
		return st.ino == h->stamp.ino;
	if (DEFECT(DISPLACED_UNCHECKED))
		return true;
	if (!place_same_object(&stamp, &h->stamp))
		return false;
	if (held_release(h))
		return false;
	if (h->kind == RECORD_FILE && !leased && h->racy)
		return place_same_content(p, staging, name, &ours->record) == 1;
	return true;
}

/* --- where it goes --- */

bool place_add_copy(struct place_outcome *o, struct place_copy *c)
{
	if (array_reserve(&o->copies, &o->cap_copies, o->n_copies + 1, sizeof(*o->copies)) != 0)
		return false;
	o->copies[o->n_copies++] = *c;
	*c = (struct place_copy){0};
	return true;
}

static int to_trash(struct place *p, const char *staged, const char *path)
{
	int r = FILE_EXISTS;

	for (int tries = 0; r == FILE_EXISTS && tries < 4; tries++) {
		cleanup_close int dir = -1;
		cleanup_free char *bucket = NULL;
		const char *name;

		r = trash_place(p->store, path, p->now_ns, &dir, &name, &bucket);
		if (r == 0)
			r = place_move(store_staging(p->store), staged, dir, name);
		if (r == 0)
			place_touch(p, steal_fd(dir));
	}
	return r;
}

/* Move it beside the path, under the first free conflict name from n on. *ret_path: heap. */
static int to_conflict_name(struct place *p, const char *staged, const char *path,
	const struct hash *content, unsigned n, int dir, char **ret_path)
{
	int r = FILE_EXISTS;

	for (; r == FILE_EXISTS && n < CONFLICT_NUMBERS_MAX; n++) {
		cleanup_free char *name = conflict_path(path, content, n);

		if (!name)
			return -ENOMEM;
		if (!path_valid(name))
			return -ENAMETOOLONG;
		r = place_move(store_staging(p->store), staged, dir, path_name(name));
		if (r == 0)
			*ret_path = steal(name);
	}
	return r;
}

/* The stamp at the conflict name; false if it is not the object that was looked at. */
static bool stamp_copy(int dir, const struct stamp *expected, struct place_copy *c)
{
	struct file_stat st;

	c->looked_ns = clock_wall_ns();
	if (file_stat_at(dir, path_name(c->path), &st) != 0)
		return false;
	stamp_of(&st, &c->stamp);
	return place_same_object(&c->stamp, expected);
}

/* What nobody knows goes beside the path, or where that can't be, to trash. */
static void user_copy(struct place *p, const struct intent *i, const struct row *ours, int dir,
	struct place_outcome *o)
{
	struct place_copy c = {0};
	struct stamp looked = {0};
	const struct hash none = {{0}};
	int r = scan_look(p->store, store_staging(p->store), i->displaced, &c.state, &looked,
		&c.nodes, &c.n_nodes);
	const struct hash *name = r == 0 ? &c.state.content.root
				  : ours ? &ours->record.content.root
					 : &none;

	c.known = r == 0 && c.state.kind != RECORD_DIRECTORY;
	r = dir < 0 ? FILE_VANISHED
		    : to_conflict_name(p, i->displaced, i->path, name, 1, dir, &c.path);
	if (r == 0) {
		c.known = c.known && stamp_copy(dir, &looked, &c);
		p->touched.many = true; /* what a user wrote there, too, before it is recorded */
		(void)place_add_copy(o, &c); /* without memory the next scan finds it */
	} else if (to_trash(p, i->displaced, i->path) != 0) {
		o->keep = true;
	}
	place_copy_deinit(&c);
}

/* The values of a record, without its versions. */
static int state_of(const struct record *from, struct record *ret)
{
	*ret = (struct record){
		.live = true,
		.kind = from->kind,
		.content = from->content,
		.mode = from->mode,
		.uid = from->uid,
		.gid = from->gid,
		.mtime_ns = from->mtime_ns,
	};
	if (from->target && !(ret->target = strdup(from->target)))
		return -ENOMEM;
	return 0;
}

/* Exactly the row's content, to the conflict name that the intent has for it. */
static int to_aside(struct place *p, const struct intent *i, const struct row *ours, int dir,
	struct place_outcome *o)
{
	struct place_copy c = {0};
	struct file_stat st;
	struct stamp stamp;
	int r = dir < 0 ? FILE_VANISHED : file_stat_at(store_staging(p->store), i->displaced, &st);

	if (r == 0) {
		stamp_of(&st, &stamp);
		r = place_move(store_staging(p->store), i->displaced, dir, path_name(i->aside));
	}
	if (r == 0)
		c.path = strdup(i->aside);
	else if (r == FILE_EXISTS)
		r = to_conflict_name(
			p, i->displaced, i->path, &ours->record.content.root, 2, dir, &c.path);
	if (r == 0) {
		touch_also(p, dir);
		c.known = c.path && state_of(&ours->record, &c.state) == 0 &&
			  stamp_copy(dir, &stamp, &c);
		if (c.path)
			(void)place_add_copy(o, &c);
	}
	place_copy_deinit(&c);
	return r;
}

/* dir: the path's directory, or -1 where it is not there any more. */
static void dispose(struct place *p, const struct intent *i, const struct row *ours, bool exact,
	int dir, struct place_outcome *o)
{
	bool aside = i->fate == INTENT_ASIDE && !i->aside_there;
	int r = FILE_NOT_EMPTY;

	o->exact = exact;
	if (exact && i->fate == INTENT_RMDIR)
		r = file_rmdir(store_staging(p->store), i->displaced);
	if (exact && aside)
		r = to_aside(p, i, ours, dir, o);
	if (r < 0) /* recovery tries again */
		o->keep = true;
	else if (exact && i->fate != INTENT_RMDIR && r != 0)
		o->keep = to_trash(p, i->displaced, i->path) != 0;
	else if (r != 0)
		user_copy(p, i, ours, dir, o);
	touch_also(p, store_staging(p->store));
}

void place_dispose(struct place *p, const struct intent *i, const struct row *ours, bool exact,
	struct place_outcome *o)
{
	cleanup_close int dir = -1;
	const char *name;

	if (file_open_parent(store_root(p->store), i->path, &dir, &name) != 0)
		dir = -1;
	dispose(p, i, ours, exact, dir, o);
}

/* --- put --- */

/* After it is in place: believed only if it is what was staged. */
static void stamp_placed(int dir, const char *name, struct place_outcome *o)
{
	int64_t now = clock_wall_ns();
	struct file_stat st;
	struct stamp stamp;

	if (file_stat_at(dir, name, &st) != 0)
		return;
	stamp_of(&st, &stamp);
	if (!place_same_object(&stamp, &o->stamp))
		return;
	stamp.generation = o->stamp.generation;
	o->stamp = stamp;
	o->looked_ns = now;
}

/* A name that the index doesn't know is taken: by a user's new object, or by another spelling of
 * it. */
static void name_taken(int dir, const char *name, struct place_outcome *o)
{
	bool listed;
	int r = name_listed(dir, name, &listed);

	if (r != 0) {
		failed(o, r);
	} else if (listed) {
		result(o, APPLY_CHANGED);
	} else {
		o->place = ROW_COLLIDES;
		result(o, APPLY_NOT_HELD);
	}
}

/* The file system gave the name another spelling: take it back. */
static void check_spelling(
	struct place *p, const struct intent *i, int dir, const char *name, struct place_outcome *o)
{
	const struct file_abilities *able = store_abilities(p->store);
	bool listed;

	if (!able->fold_case && !able->fold_unicode)
		return;
	if (name_listed(dir, name, &listed) != 0 || listed)
		return;
	if (place_move(dir, name, store_staging(p->store), i->staged) != 0)
		return;
	o->placed = false;
	o->place = ROW_COLLIDES;
	result(o, APPLY_NOT_HELD);
}

static void put_new(
	struct place *p, const struct intent *i, int dir, const char *name, struct place_outcome *o)
{
	struct file_stat st;
	int r = file_stat_at(dir, name, &st);

	if (r == FILE_VANISHED)
		r = place_move(store_staging(p->store), i->staged, dir, name);
	else if (r == 0)
		r = FILE_EXISTS;
	if (r == FILE_EXISTS) {
		name_taken(dir, name, o);
		return;
	}
	if (r != 0) {
		failed(o, r);
		return;
	}
	o->placed = true;
	result(o, APPLY_DONE);
	touch_also(p, store_staging(p->store));
	touch_also(p, dir);
	stamp_placed(dir, name, o);
	check_spelling(p, i, dir, name, o);
}

/* File systems without exchange: hold the old object by a second name, then replace. Where there
 * are no hard links either, and where kinds differ, the path is empty for a moment. */
static int replace_in_steps(
	struct place *p, const struct intent *i, const struct held *h, int dir, const char *name)
{
	int staging = store_staging(p->store), r = FILE_DENIED;
	struct file_stat st;

	assert(strcmp(i->staged, i->displaced) != 0);
	if (h->kind != RECORD_DIRECTORY && i->new_kind != RECORD_DIRECTORY)
		r = file_link(dir, name, staging, i->displaced);
	if (r == 0) {
		r = file_stat_at(dir, name, &st);
		if (r == 0 && st.ino != h->stamp.ino)
			r = FILE_VANISHED;
		if (r == 0)
			r = file_rename_replace(staging, i->staged, dir, name);
		if (r != 0)
			(void)file_unlink(staging, i->displaced); /* a second name only */
		return r;
	}
	if (r != FILE_DENIED && r != FILE_UNSUPPORTED)
		return r;
	r = place_move(dir, name, staging, i->displaced);
	if (r == 0) {
		r = place_move(staging, i->staged, dir, name);
		if (r != 0 && place_move(staging, i->displaced, dir, name) != 0)
			r = FILE_EXISTS; /* someone took the name: recovery looks after what is in
					    staging */
	}
	return r;
}

static void put_over(struct place *p, const struct intent *i, const struct row *ours, int dir,
	const char *name, struct place_outcome *o)
{
	cleanup(held_deinit) struct held h = {.fd = -1};
	struct file_stat st;
	bool empty = true, stepwise = strcmp(i->staged, i->displaced) != 0;
	int r = 0;

	if (!hold(p, dir, name, ours, &h, o))
		return;
	if (h.kind == RECORD_DIRECTORY)
		r = directory_empty(dir, name, &empty);
	if (r == 0 && !empty) {
		result(o, APPLY_BLOCKED);
		return;
	}
	if (r == 0)
		r = stepwise ? replace_in_steps(p, i, &h, dir, name)
			     : file_exchange(store_staging(p->store), i->staged, dir, name);
	if (r != 0) {
		failed(o, r == FILE_EXISTS ? FILE_VANISHED : r);
		/* It came out, and a user took the name. */
		if (stepwise &&
			file_stat_at(store_staging(p->store), i->displaced, &st) != FILE_VANISHED)
			dispose(p, i, ours, came_out(p, i->displaced, ours, &h), dir, o);
		return;
	}
	o->placed = true;
	result(o, APPLY_DONE);
	stamp_placed(dir, name, o);
	touch_also(p, dir);
	dispose(p, i, ours, came_out(p, i->displaced, ours, &h), dir, o);
}

/* A live non-directory that has live children: beside them, under a conflict name. */
static void put_aside(struct place *p, const struct intent *i, int dir, struct place_outcome *o)
{
	int r = 0;

	if (!i->aside_there)
		r = place_move(store_staging(p->store), i->staged, dir, path_name(i->aside));
	if (r == FILE_EXISTS) {
		result(o, APPLY_CHANGED);
		return;
	}
	if (r != 0) {
		failed(o, r);
		return;
	}
	result(o, APPLY_DONE);
	if (i->aside_there)
		return;
	o->placed = true;
	touch_also(p, store_staging(p->store));
	touch_also(p, dir);
	stamp_placed(dir, path_name(i->aside), o);
}

/* --- remove --- */

static void remove_directory(struct place *p, const struct intent *i, const struct row *ours,
	int dir, const char *name, struct place_outcome *o)
{
	cleanup(held_deinit) struct held h = {.fd = -1};
	int r;

	if (!hold(p, dir, name, ours, &h, o))
		return;
	r = file_rmdir(dir, name);
	if (r == FILE_NOT_EMPTY && i->place != ROW_NOT_HERE) {
		result(o, APPLY_BLOCKED);
		return;
	}
	if (r != 0 && r != FILE_NOT_EMPTY) {
		failed(o, r);
		return;
	}
	if (r == FILE_NOT_EMPTY) {
		o->place = ROW_IMPLIED;
		o->stamp = h.stamp;
		o->looked_ns = clock_wall_ns();
	}
	touch_also(p, dir);
	result(o, APPLY_DONE);
}

static void remove_object(struct place *p, const struct intent *i, const struct row *ours, int dir,
	const char *name, struct place_outcome *o)
{
	cleanup(held_deinit) struct held h = {.fd = -1};
	int staging = store_staging(p->store), r;

	if (!hold(p, dir, name, ours, &h, o))
		return;
	r = place_move(dir, name, staging, i->displaced);
	if (r != 0) {
		failed(o, r);
		return;
	}
	touch_also(p, dir);
	touch_also(p, staging);
	if (came_out(p, i->displaced, ours, &h)) {
		result(o, APPLY_DONE);
		dispose(p, i, ours, true, dir, o);
		return;
	}
	result(o, APPLY_CHANGED);
	if (place_move(staging, i->displaced, dir, name) != 0)
		dispose(p, i, ours, false, dir, o);
}

/* --- set --- */

/* Half-way is worse than not at all: it would look like a user's doing. false: it can't be taken
 * back either. */
static bool set_back(int fd, const struct intent *i)
{
	struct file_stat st;
	struct stamp stamp;

	if (i->preserve_owner)
		(void)file_chown_fd(fd, i->old.uid, i->old.gid);
	(void)file_chmod_fd(fd, i->old.mode);
	if (i->record.kind != RECORD_DIRECTORY)
		(void)file_set_mtime_fd(fd, i->old.mtime_ns);
	if (file_stat_fd(fd, &st) != 0)
		return false;
	stamp_of(&st, &stamp);
	if (i->record.kind == RECORD_DIRECTORY)
		return stamp.mode == i->old.mode && stamp.uid == i->old.uid &&
		       stamp.gid == i->old.gid;
	return place_same_object(&stamp, &i->old);
}

static void set_on(struct place *p, const struct intent *i, int fd, struct place_outcome *o)
{
	int64_t now = clock_wall_ns();
	struct stamp stamp;
	int r = attributes_fd(p, fd, &i->record, i->preserve_owner, &stamp);

	if (r != 0) {
		failed(o, r);
		o->keep = !set_back(fd, i);
		return;
	}
	o->stamp = stamp;
	o->looked_ns = now;
	touch_also(p, fd);
	result(o, APPLY_DONE);
}

static void set_directory(struct place *p, const struct intent *i, const struct row *ours,
	bool verified, int dir, const char *name, struct place_outcome *o)
{
	cleanup_close int fd = -1;
	const struct stamp *was = &ours->stamp;
	struct file_stat st;
	int r = file_open_directory_at(dir, name, &fd);

	if (r == 0)
		r = file_stat_fd(fd, &st);
	if (r != 0)
		failed(o, r);
	else if (st.ino != was->ino ||
		 (!verified && (st.mode != was->mode || st.uid != was->uid || st.gid != was->gid)))
		result(o, APPLY_CHANGED);
	else
		set_on(p, i, fd, o);
}

static void set_symlink(
	struct place *p, const struct intent *i, int dir, const char *name, struct place_outcome *o)
{
	struct file_stat st;
	int r = attributes_symlink(dir, name, &i->record, i->preserve_owner);

	if (r == 0) {
		o->looked_ns = clock_wall_ns();
		r = file_stat_at(dir, name, &st);
	}
	if (r != 0) {
		failed(o, r);
		return;
	}
	stamp_of(&st, &o->stamp);
	p->touched.many = true; /* a symlink has no descriptor to sync */
	result(o, APPLY_DONE);
}

static void set_object(struct place *p, const struct intent *i, const struct row *ours,
	bool verified, int dir, const char *name, struct place_outcome *o)
{
	cleanup(held_deinit) struct held h = {.fd = -1};
	int r = 0;

	if (i->record.kind == RECORD_DIRECTORY) {
		set_directory(p, i, ours, verified, dir, name, o);
		return;
	}
	if (!verified && !hold(p, dir, name, ours, &h, o))
		return;
	if (i->record.kind == RECORD_SYMLINK) {
		set_symlink(p, i, dir, name, o);
		return;
	}
	if (h.fd < 0)
		r = verified ? file_open_read(dir, name, &h.fd) : FILE_DENIED;
	if (r != 0)
		failed(o, r);
	else
		set_on(p, i, h.fd, o);
}

void place_set(struct place *p, const struct intent *i, const struct row *ours, bool verified,
	struct place_outcome *o)
{
	cleanup_close int dir = -1;
	const char *name;
	int r = file_open_parent(store_root(p->store), i->path, &dir, &name);

	if (r != 0)
		failed(o, r);
	else
		set_object(p, i, ours, verified, dir, name, o);
}

int place_finish_directory(struct place *p, const struct intent *i, struct place_outcome *o)
{
	cleanup_close int dir = -1, fd = -1;
	const char *name;
	struct file_stat st;
	struct stamp stamp;
	int r = file_open_parent(store_root(p->store), i->path, &dir, &name);

	if (r == 0)
		r = file_open_directory_at(dir, name, &fd);
	if (r == 0)
		r = file_stat_fd(fd, &st);
	if (r < 0)
		return r;
	if (r != 0 || st.ino != i->staged_stamp.ino)
		return 0; /* a user took it away: the row keeps the staged one's stamp */
	stamp_of(&st, &stamp);
	if (stamp.mode != i->staged_stamp.mode || stamp.uid != i->staged_stamp.uid ||
		stamp.gid != i->staged_stamp.gid)
		return 0;
	o->looked_ns = clock_wall_ns();
	if (i->has_record && i->becomes == INTENT_TAKEN && i->record.live) {
		if (i->record.mtime_ns != 0)
			(void)file_set_mtime_fd(fd, i->record.mtime_ns);
		r = attributes_fd(p, fd, &i->record, i->preserve_owner, &stamp);
		if (r != 0)
			return r < 0 ? r : 0;
	}
	o->stamp = stamp;
	place_touch(p, steal_fd(fd));
	return 0;
}

int place_run(
	struct place *p, const struct intent *i, const struct row *ours, struct place_outcome *o)
{
	cleanup_close int dir = -1;
	const char *name;
	int r = file_open_parent(store_root(p->store), i->path, &dir, &name);

	o->place = i->place;
	o->stamp = i->staged_stamp;
	if (r != 0) {
		failed(o, r);
		return 0;
	}
	switch (i->op) {
	case INTENT_PUT:
		if (i->fate == INTENT_NO_OLD)
			put_new(p, i, dir, name, o);
		else
			put_over(p, i, ours, dir, name, o);
		break;
	case INTENT_PUT_ASIDE:
		put_aside(p, i, dir, o);
		break;
	case INTENT_REMOVE:
		if (i->fate == INTENT_RMDIR)
			remove_directory(p, i, ours, dir, name, o);
		else
			remove_object(p, i, ours, dir, name, o);
		break;
	case INTENT_SET:
		set_object(p, i, ours, false, dir, name, o);
		break;
	default:
		assert(!"an intent without anything to do on disk");
	}
	return 0;
}
