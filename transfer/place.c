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
#include "transfer/place_internal.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/defect.h"
#include "tombstones/conflict.h"
#include "tombstones/trash.h"

#define RACY_NS (2 * CLOCK_NS_PER_S) /* the coarsest clock of a file system */
#define CONFLICT_NUMBERS_MAX 10000

/* --- what is to be synced --- */

void place_init(struct place *p, struct store *store, int64_t now_ns)
{
	*p = (struct place){.store = store, .now_ns = now_ns, .dir = -1};
}

void place_deinit(struct place *p)
{
	sync_set_drop(&p->touched);
	p->dir = close_keep(p->dir);
}

void place_touch(struct place *p, int fd)
{
	sync_set_add(&p->touched, fd);
}

void place_touch_also(struct place *p, int fd)
{
	bool *done = fd == p->dir ? &p->dir_touched : fd == store_staging(p->store) ? &p->staging_touched : NULL;
	int copy;

	if (p->touched.many || (done && *done))
		return;
	copy = dup(fd);
	if (copy < 0)
		p->touched.many = true;
	else
		place_touch(p, copy);
	if (done)
		*done = true;
}

int place_sync(struct place *p)
{
	p->dir_touched = p->staging_touched = false;
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

void place_result(struct place_outcome *o, enum apply_result r)
{
	o->result = r;
	o->error = 0;
}

void place_failed(struct place_outcome *o, int r)
{
	assert(r != 0);
	o->result = r == FILE_VANISHED ? APPLY_CHANGED : r == FILE_BUSY ? APPLY_BUSY : APPLY_FAILED;
	o->error = r;
}

/* --- small steps --- */

/* Two names of one object: the end of a process may have come between the two steps of a move; or power was lost, and the file
 * system kept the new name without removing the old one. */
static bool one_object(int dir1, const char *name1, int dir2, const char *name2)
{
	struct file_stat a, b;

	return file_stat_at(dir1, name1, &a) == 0 && file_stat_at(dir2, name2, &b) == 0 && a.ino == b.ino &&
	       a.dev == b.dev && a.kind == b.kind && a.kind != FILE_KIND_DIRECTORY;
}

int place_move(int from_dir, const char *from, int to_dir, const char *to)
{
	struct file_stat st;
	int r = file_rename_noreplace(from_dir, from, to_dir, to);
	bool links = r == FILE_UNSUPPORTED;

	if (links)
		r = file_link(from_dir, from, to_dir, to);
	if ((links && r == 0) || (r == FILE_EXISTS && one_object(from_dir, from, to_dir, to))) {
		r = file_unlink(from_dir, from);
		return r == FILE_VANISHED ? 0 : r; /* a user took the old name away: the new one is its only one */
	}
	if (!links)
		return r;
	if (r != FILE_DENIED && r != FILE_UNSUPPORTED && r != FILE_IS_DIRECTORY)
		return r;
	/* Neither no-replace nor hard links (FAT): a look has to do. */
	r = file_stat_at(to_dir, to, &st);
	if (r == 0)
		return FILE_EXISTS;
	return r == FILE_VANISHED ? file_rename_replace(from_dir, from, to_dir, to) : r;
}

uint64_t place_generation(int dir, const char *name, uint8_t kind)
{
	cleanup_close int fd = -1;
	uint64_t generation = 0;
	int r = FILE_UNSUPPORTED;

	if (kind == RECORD_FILE)
		r = file_open_read(dir, name, &fd);
	else if (kind == RECORD_DIRECTORY)
		r = file_open_directory_at(dir, name, &fd);
	return r == 0 && file_generation(fd, &generation) == 0 ? generation : 0;
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
	return r < 0 ? r : r == FILE_BUSY ? -EBUSY : r == FILE_DENIED ? -EACCES : same;
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

/* --- looking at what is there, and at what came out --- */

void held_deinit(struct held *h)
{
	if (h->leased)
		(void)file_lease_release(h->fd);
	h->fd = close_keep(h->fd);
}

bool held_release(struct held *h)
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
		return place_result(o, APPLY_CHANGED), false;
	if (r != 0 && r != FILE_DENIED)
		return place_failed(o, r), false;
	if (r == 0) {
		r = file_lease_read(h->fd);
		if (r < 0 || r == FILE_BUSY)
			return place_failed(o, r), false;
		h->leased = r == 0;
		r = file_stat_fd(h->fd, &st);
		if (r != 0)
			return place_failed(o, r), false;
		stamp_of(&st, &h->stamp);
		if (!stamp_equal(&h->stamp, &ours->stamp))
			return place_result(o, APPLY_CHANGED), false;
		if (ours->stamp.generation && file_generation(h->fd, &generation) == 0 &&
			generation != ours->stamp.generation)
			return place_result(o, APPLY_CHANGED), false;
	}
	h->racy = !store_exact(p->store, &ours->stamp) &&
		  (ours->recorded_ns - h->stamp.mtime_ns < RACY_NS || ours->recorded_ns - h->stamp.ctime_ns < RACY_NS);
	if (!h->racy)
		return true;
	r = place_same_content(p, dir, name, &ours->record);
	if (r < 0)
		return place_failed(o, r == -EBUSY ? FILE_BUSY : r), false;
	if (r == 0)
		place_result(o, APPLY_CHANGED);
	return r == 1;
}

static bool hold_symlink(int dir, const char *name, const struct row *ours, struct place_outcome *o)
{
	cleanup_free char *target = NULL;
	int r = file_readlink(dir, name, &target);

	if (r != 0)
		return place_failed(o, r == FILE_UNSUPPORTED ? FILE_VANISHED : r), false;
	if (!ours->record.target || strcmp(target, ours->record.target) != 0)
		return place_result(o, APPLY_CHANGED), false;
	return true;
}

bool place_hold(struct place *p, int dir, const char *name, const struct row *ours, struct held *h,
	struct place_outcome *o)
{
	struct file_stat st;
	int r = file_stat_at(dir, name, &st);

	*h = (struct held){.fd = -1};
	if (r != 0)
		return place_failed(o, r), false;
	stamp_of(&st, &h->stamp);
	h->kind = scan_kind(&st);
	if (h->kind != (ours->place == ROW_IMPLIED ? RECORD_DIRECTORY : ours->record.kind))
		return place_result(o, APPLY_CHANGED), false;
	if (DEFECT(LOOK_SKIPPED) && h->kind != RECORD_DIRECTORY)
		return true;
	if (h->kind == RECORD_DIRECTORY) {
		if (st.ino != ours->stamp.ino)
			place_result(o, APPLY_CHANGED);
		return st.ino == ours->stamp.ino;
	}
	if (!stamp_equal(&h->stamp, &ours->stamp))
		return place_result(o, APPLY_CHANGED), false;
	return h->kind == RECORD_FILE ? hold_file(p, dir, name, ours, h, o)
				      : hold_symlink(dir, name, ours, o);
}

enum out { OUT_EXACT, OUT_OTHER, OUT_UNSEEN };

/* Is what is now in staging what was held, unchanged? Ends the lease, but where it can't be looked at. h->stamp is as it is there. */
static enum out came_out(struct place *p, const char *name, const struct row *ours, struct held *h)
{
	int staging = store_staging(p->store), r;
	struct file_stat st;
	struct stamp stamp;
	bool leased = h->leased;

	r = file_stat_at(staging, name, &st);
	if (r != 0)
		return r == FILE_VANISHED ? OUT_OTHER : OUT_UNSEEN;
	if (scan_kind(&st) != h->kind)
		return OUT_OTHER;
	stamp_of(&st, &stamp);
	if (h->kind == RECORD_DIRECTORY)
		return st.ino == h->stamp.ino ? OUT_EXACT : OUT_OTHER;
	if (DEFECT(DISPLACED_UNCHECKED))
		return OUT_EXACT;
	if (!place_same_object(&stamp, &h->stamp))
		return OUT_OTHER;
	h->stamp.ctime_ns = stamp.ctime_ns;
	if (held_release(h))
		return OUT_OTHER;
	if (h->kind != RECORD_FILE || leased || !h->racy)
		return OUT_EXACT;
	r = place_same_content(p, staging, name, &ours->record);
	return r == 1 ? OUT_EXACT : r == 0 || r == -EBUSY ? OUT_OTHER : OUT_UNSEEN;
}

/* Out of the tree. Where its old name stays, it has no other. */
static int take_away(int dir, const char *name, int staging, const char *to)
{
	int r = place_move(dir, name, staging, to);

	if (r != 0 && r != FILE_VANISHED && one_object(dir, name, staging, to))
		(void)file_unlink(staging, to);
	return r;
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

	/* vanished: somebody empties the trash in this moment */
	for (int tries = 0; (r == FILE_EXISTS || r == FILE_VANISHED) && tries < 4; tries++) {
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
		place_touch_also(p, dir);
		c.known = c.path && state_of(&ours->record, &c.state) == 0 &&
			  stamp_copy(dir, &stamp, &c);
		if (c.path)
			(void)place_add_copy(o, &c);
	}
	place_copy_deinit(&c);
	return r;
}

/* Does that say where it belongs? Anything else is this moment's: recovery tries again. */
static bool answered(int r)
{
	return r == 0 || r == FILE_VANISHED || r == FILE_EXISTS || r == FILE_NOT_EMPTY;
}

/* dir: the path's directory, or -1 where it is not there any more. */
static void dispose(struct place *p, const struct intent *i, const struct row *ours, enum out out,
	int dir, struct place_outcome *o)
{
	bool aside = i->fate == INTENT_ASIDE && !i->aside_there, exact = out == OUT_EXACT;
	int r = FILE_NOT_EMPTY;

	o->exact = exact;
	if (exact && i->fate == INTENT_RMDIR)
		r = file_rmdir(store_staging(p->store), i->displaced);
	if (exact && aside)
		r = to_aside(p, i, ours, dir, o);
	if (out == OUT_UNSEEN || !answered(r))
		o->keep = true;
	else if (exact && i->fate != INTENT_RMDIR && r != 0)
		o->keep = to_trash(p, i->displaced, i->path) != 0;
	else if (r != 0)
		user_copy(p, i, ours, dir, o);
	place_touch_also(p, store_staging(p->store));
}

void place_dispose(struct place *p, const struct intent *i, const struct row *ours, bool exact,
	struct place_outcome *o)
{
	cleanup_close int dir = -1;
	const char *name;

	if (file_open_parent(store_root(p->store), i->path, &dir, &name) != 0)
		dir = -1;
	dispose(p, i, ours, exact ? OUT_EXACT : OUT_OTHER, dir, o);
}

/* --- put --- */

/* A lease on what is staged, until it is in place and its stamp is taken: then that is exact. Not where it was touched since. */
static void hold_staged(const struct place *p, const struct intent *i, struct held *h)
{
	struct file_stat st;

	*h = (struct held){.fd = -1};
	if (i->new_kind != RECORD_FILE || !store_mount(p->store) ||
		file_open_read(store_staging(p->store), i->staged, &h->fd) != 0)
		return;
	h->leased = file_lease_read(h->fd) == 0;
	if (file_stat_fd(h->fd, &st) != 0 || st.ino != i->staged_stamp.ino || st.ctime_ns != i->staged_stamp.ctime_ns)
		(void)held_release(h);
}

/* After it is in place: believed only if it is what was staged. Ends the lease. */
static void stamp_placed(const struct place *p, int dir, const char *name, struct held *h, struct place_outcome *o)
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
	stamp.exact = DEFECT(EXACT_UNPROVEN) || (h->leased && !held_release(h)) ? store_mount(p->store) : 0;
	o->stamp = stamp;
	o->looked_ns = now;
}

/* A name that the index doesn't know is taken: by a user's new object, or by another spelling of it. What a user took away in this
 * moment is not listed either: the object must stand there before and after. */
static void name_taken(int dir, const char *name, struct place_outcome *o)
{
	struct file_stat before, after;
	bool listed = false;
	int r = file_stat_at(dir, name, &before);

	if (r == 0)
		r = name_listed(dir, name, &listed);
	if (r == 0 && !listed)
		r = file_stat_at(dir, name, &after);
	if (r != 0) {
		place_failed(o, r);
	} else if (listed || before.ino != after.ino) {
		place_result(o, APPLY_CHANGED);
	} else {
		o->place = ROW_COLLIDES;
		place_result(o, APPLY_NOT_HELD);
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
	place_result(o, APPLY_NOT_HELD);
}

/* With its name in staging left, as that could not be removed, it is in place all the same. */
static bool landed(const struct intent *i, int dir, const char *name)
{
	struct file_stat st;

	return file_stat_at(dir, name, &st) == 0 && st.ino == i->staged_stamp.ino;
}

static void put_new(
	struct place *p, const struct intent *i, int dir, const char *name, struct place_outcome *o)
{
	cleanup(held_deinit) struct held h;
	int r;

	hold_staged(p, i, &h);
	r = place_move(store_staging(p->store), i->staged, dir, name);
	if (r == FILE_EXISTS) {
		name_taken(dir, name, o);
		return;
	}
	if (r != 0 && !landed(i, dir, name)) {
		place_failed(o, r);
		return;
	}
	o->placed = true;
	place_result(o, APPLY_DONE);
	place_touch_also(p, store_staging(p->store));
	place_touch_also(p, dir);
	stamp_placed(p, dir, name, &h, o);
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
	r = take_away(dir, name, staging, i->displaced);
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
	cleanup(held_deinit) struct held h = {.fd = -1}, staged = {.fd = -1};
	struct file_stat st;
	bool empty = true, stepwise = strcmp(i->staged, i->displaced) != 0;
	int r = 0;

	if (!place_hold(p, dir, name, ours, &h, o))
		return;
	if (h.kind == RECORD_DIRECTORY)
		r = directory_empty(dir, name, &empty);
	if (r == 0 && !empty) {
		place_result(o, APPLY_BLOCKED);
		return;
	}
	if (r == 0) {
		hold_staged(p, i, &staged);
		r = stepwise ? replace_in_steps(p, i, &h, dir, name)
			     : file_exchange(store_staging(p->store), i->staged, dir, name);
	}
	if (r != 0) {
		place_failed(o, r == FILE_EXISTS ? FILE_VANISHED : r);
		/* It came out, and a user took the name. */
		if (stepwise &&
			file_stat_at(store_staging(p->store), i->displaced, &st) != FILE_VANISHED)
			dispose(p, i, ours, came_out(p, i->displaced, ours, &h), dir, o);
		return;
	}
	o->placed = true;
	place_result(o, APPLY_DONE);
	stamp_placed(p, dir, name, &staged, o);
	place_touch_also(p, dir);
	dispose(p, i, ours, came_out(p, i->displaced, ours, &h), dir, o);
}

/* A live non-directory that has live children: beside them, under a conflict name. */
static void put_aside(struct place *p, const struct intent *i, int dir, struct place_outcome *o)
{
	cleanup(held_deinit) struct held h = {.fd = -1};
	int r = 0;

	if (!i->aside_there) {
		hold_staged(p, i, &h);
		r = place_move(store_staging(p->store), i->staged, dir, path_name(i->aside));
	}
	if (r == FILE_EXISTS) {
		place_result(o, APPLY_CHANGED);
		return;
	}
	if (r != 0 && !landed(i, dir, path_name(i->aside))) {
		place_failed(o, r);
		return;
	}
	place_result(o, APPLY_DONE);
	if (i->aside_there)
		return;
	o->placed = true;
	place_touch_also(p, store_staging(p->store));
	place_touch_also(p, dir);
	stamp_placed(p, dir, path_name(i->aside), &h, o);
}

/* --- remove --- */

static void remove_directory(struct place *p, const struct intent *i, const struct row *ours,
	int dir, const char *name, struct place_outcome *o)
{
	cleanup(held_deinit) struct held h = {.fd = -1};
	int r;

	if (!place_hold(p, dir, name, ours, &h, o))
		return;
	r = file_rmdir(dir, name);
	if (r == FILE_NOT_EMPTY && i->place != ROW_NOT_HERE) {
		place_result(o, APPLY_BLOCKED);
		return;
	}
	if (r != 0 && r != FILE_NOT_EMPTY) {
		place_failed(o, r);
		return;
	}
	if (r == FILE_NOT_EMPTY) {
		o->place = ROW_IMPLIED;
		o->stamp = h.stamp;
		o->looked_ns = clock_wall_ns();
	}
	place_touch_also(p, dir);
	place_result(o, APPLY_DONE);
}

static void remove_object(struct place *p, const struct intent *i, const struct row *ours, int dir,
	const char *name, struct place_outcome *o)
{
	cleanup(held_deinit) struct held h = {.fd = -1};
	int staging = store_staging(p->store), r;

	if (!place_hold(p, dir, name, ours, &h, o))
		return;
	r = take_away(dir, name, staging, i->displaced);
	if (r != 0) {
		place_failed(o, r);
		return;
	}
	place_touch_also(p, dir);
	place_touch_also(p, staging);
	if (came_out(p, i->displaced, ours, &h) == OUT_EXACT) {
		place_result(o, APPLY_DONE);
		dispose(p, i, ours, OUT_EXACT, dir, o);
		return;
	}
	place_result(o, APPLY_CHANGED);
	if (place_move(staging, i->displaced, dir, name) != 0)
		dispose(p, i, ours, OUT_OTHER, dir, o);
}

/* --- move --- */

bool place_moves_as(const struct row *row, const struct record *r, bool preserve_owner)
{
	const struct record *was = &row->record;

	return row_live(row) && row->place == ROW_ON_DISK && record_same_state(was, r) && was->kind == RECORD_FILE &&
	       record_same_attributes(was, r) && was->mtime_ns == r->mtime_ns &&
	       !((r->mode | row->stamp.mode) & SPECIAL_BITS) &&
	       (!preserve_owner || (row->stamp.uid == r->uid && row->stamp.gid == r->gid));
}

bool place_movable(struct store *store, const char *path, const struct row *row)
{
	cleanup_close int dir = -1, fd = -1;
	struct file_stat st;
	struct stamp stamp;
	const char *name;

	if (!store_abilities(store)->lease || file_open_parent(store_root(store), path, &dir, &name) != 0 ||
		file_open_read(dir, name, &fd) != 0 || file_stat_fd(fd, &st) != 0 || st.nlink != 1)
		return false;
	stamp_of(&st, &stamp);
	return stamp_equal(&stamp, &row->stamp) && file_lease_read(fd) == 0; /* closing it ends the lease */
}

/* Into staging; true: it is there, and is what the row says, with that ctime. */
static bool take_out(struct place *p, const struct intent *i, const struct row *ours, int dir, const char *name,
	int64_t *ret_ctime_ns, struct place_outcome *o)
{
	cleanup(held_deinit) struct held h = {.fd = -1};
	int staging = store_staging(p->store), r;

	if (!place_hold(p, dir, name, ours, &h, o))
		return false;
	if (!h.leased || h.stamp.nlink != 1)
		return place_result(o, APPLY_NEEDS_CONTENT), false;
	r = take_away(dir, name, staging, i->displaced);
	if (r != 0)
		return place_failed(o, r), false;
	place_touch_also(p, dir);
	place_touch_also(p, staging);
	if (came_out(p, i->displaced, ours, &h) == OUT_EXACT) {
		*ret_ctime_ns = h.stamp.ctime_ns;
		return true;
	}
	place_result(o, APPLY_CHANGED);
	o->keep = place_move(staging, i->displaced, dir, name) != 0;
	return false;
}

void place_run_move(struct place *p, const struct intent *from, const struct row *ours, struct place_outcome *from_o,
	const struct intent *to, struct place_outcome *to_o)
{
	struct intent put = *to; /* it owns nothing */
	cleanup_close int dir = -1;
	const char *name;
	int r = file_open_parent(store_root(p->store), from->path, &dir, &name);

	from_o->place = from->place;
	if (r != 0) {
		place_failed(from_o, r);
		place_result(to_o, APPLY_NEEDS_CONTENT);
		return;
	}
	if (!take_out(p, from, ours, dir, name, &put.staged_stamp.ctime_ns, from_o)) {
		place_result(to_o, APPLY_NEEDS_CONTENT);
		return;
	}
	(void)place_run(p, &put, NULL, to_o); /* of a new name: it needs no memory */
	place_result(from_o, to_o->placed ? APPLY_DONE : APPLY_CHANGED); /* its change time, at least */
	if (!to_o->placed)
		from_o->keep = place_move(store_staging(p->store), from->displaced, dir, name) != 0;
}

/* One that this batch itself moves away is never used again: its own change has another parent. */
static int open_parent(struct place *p, const char *path, const char **ret_name)
{
	size_t n = path_parent_length(path);
	int r;

	*ret_name = path + n + (n != 0);
	if (p->dir >= 0 && strncmp(p->parent, path, n) == 0 && !p->parent[n])
		return 0;
	p->dir = close_keep(p->dir);
	p->dir_touched = false;
	r = file_open_parent(store_root(p->store), path, &p->dir, ret_name);
	if (r == 0) {
		memcpy(p->parent, path, n);
		p->parent[n] = '\0';
	}
	return r;
}

int place_run(
	struct place *p, const struct intent *i, const struct row *ours, struct place_outcome *o)
{
	const char *name;
	int r = open_parent(p, i->path, &name), dir = p->dir;

	o->place = i->place;
	o->stamp = i->staged_stamp;
	o->stamp.exact = 0;
	if (r != 0) {
		place_failed(o, r);
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
		place_set_object(p, i, ours, false, dir, name, o);
		break;
	default:
		assert(!"an intent without anything to do on disk");
	}
	return 0;
}
