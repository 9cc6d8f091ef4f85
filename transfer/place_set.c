/*
 * transfer/place_set.c — attributes, given to objects in staging and to those in place; see transfer/place.h.
 */
#include "transfer/place_internal.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>

#include "base/clock.h"
#include "base/defect.h"
#include "base/random.h"

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
 * not. st: as it is. *ret_timed: it has the record's mtime. */
static int give_attributes(int fd, struct file_stat st, const struct record *r, bool preserve_owner, uint16_t *ret_mode, bool *ret_timed)
{
	uint16_t mode = r->mode;
	bool directory = r->kind == RECORD_DIRECTORY;
	int e = 0;

	if (preserve_owner && (st.uid != r->uid || st.gid != r->gid)) {
		e = file_chown_fd(fd, r->uid, r->gid);
		if (e >= 0)
			e = file_stat_fd(fd, &st);
	}
	if (e != 0)
		return e;
	/* A program that runs as its owner must not run as another owner than was meant; and where owners are not taken over
	 * a peer's word does not make one that runs as root. */
	if (!directory && (st.uid != r->uid || st.gid != r->gid || (!preserve_owner && (!st.uid || !st.gid))))
		mode &= (uint16_t)~SPECIAL_BITS;
	if (st.mode != mode)
		e = file_chmod_fd(fd, mode);
	*ret_mode = e > 0 ? st.mode : mode; /* not ours to change */
	*ret_timed = false;
	if (e >= 0 && !directory) {
		e = file_set_mtime_fd(fd, r->mtime_ns);
		*ret_timed = e == 0;
	}
	return e < 0 ? e : 0;
}

static int attributes_fd(
	struct place *p, int fd, const struct record *r, bool preserve_owner, struct stamp *ret)
{
	struct file_stat st;
	uint16_t mode;
	bool timed;
	int e = file_stat_fd(fd, &st);

	if (e == 0)
		e = give_attributes(fd, st, r, preserve_owner, &mode, &timed);
	return e == 0 ? stamp_set(p, fd, r, timed, mode, ret) : e;
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

int place_make_ready(int fd, const struct file_stat *st, const struct record *r, bool preserve_owner, bool fsync, struct place_ready *ret)
{
	struct file_stat now;
	uint64_t generation;
	uint16_t mode;
	bool timed;
	int e = give_attributes(fd, *st, r, preserve_owner, &mode, &timed);

	if (e == 0)
		e = DEFECT(COMMIT_BEFORE_FSYNC) ? 0 : fsync ? file_fsync(fd) : file_start_writeback(fd);
	if (!fsync && e == FILE_UNSUPPORTED)
		e = 0;
	if (e == 0 && file_generation(fd, &generation) != 0)
		generation = 0;
	if (e == 0)
		e = file_stat_fd(fd, &now);
	if (e != 0)
		return e;
	*ret = (struct place_ready){
		.preserve_owner = preserve_owner, .mode = r->mode, .uid = r->uid, .gid = r->gid, .mtime_ns = r->mtime_ns};
	stamp_of(&now, &ret->stamp);
	ret->stamp.generation = generation;
	return 0;
}

static bool ready_for(const struct place_ready *ready, const struct record *r, bool preserve_owner)
{
	return ready && ready->preserve_owner == preserve_owner && ready->mode == r->mode && ready->uid == r->uid && ready->gid == r->gid &&
	       ready->mtime_ns == r->mtime_ns && ready->stamp.size == r->content.size;
}

static int stage_file(struct place *p, struct intent *i, const struct record *r, const struct place_ready *ready, bool fsync)
{
	cleanup_close int fd = -1;
	struct place_ready made;
	struct file_stat st;
	int e = 0;

	if (!ready_for(ready, r, i->preserve_owner))
		ready = NULL;
	if (!ready || fsync)
		e = file_open_seen(store_staging(p->store), i->staged, &fd, &st); /* we made it */
	if (e == 0 && fd >= 0 && st.size != r->content.size)
		return -EBADMSG;
	if (e == 0 && !ready)
		e = place_make_ready(fd, &st, r, i->preserve_owner, fsync, &made);
	else if (e == 0 && fsync && !DEFECT(COMMIT_BEFORE_FSYNC))
		e = file_fsync(fd);
	if (e == 0)
		i->staged_stamp = ready ? ready->stamp : made.stamp;
	return e;
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

int place_stage(struct place *p, struct intent *i, const struct record *r, const struct place_ready *ready, bool fsync)
{
	uint64_t generation = 0;
	struct file_stat st = {0};
	int e;

	i->new_kind = r ? r->kind : RECORD_DIRECTORY;
	if (i->new_kind == RECORD_FILE)
		return stage_file(p, i, r, ready, fsync);
	if (i->new_kind == RECORD_SYMLINK)
		e = stage_symlink(p, i, r, &st);
	else
		e = stage_directory(p, i, r, &st, &generation);
	if (e != 0)
		return e;
	stamp_of(&st, &i->staged_stamp);
	i->staged_stamp.generation = generation;
	return 0;
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

/* h: of a file that is what the row says; ends the lease. Or NULL. */
static void set_on(struct place *p, const struct intent *i, int fd, struct held *h, struct place_outcome *o)
{
	int64_t now = clock_wall_ns();
	struct stamp stamp;
	int r = attributes_fd(p, fd, &i->record, i->preserve_owner, &stamp);

	if (r != 0) {
		place_failed(o, r);
		o->keep = !set_back(fd, i);
		return;
	}
	o->stamp = stamp;
	o->stamp.exact = h && h->leased && !held_release(h) ? store_mount(p->store) : 0;
	o->looked_ns = now;
	place_touch_also(p, fd);
	place_result(o, APPLY_DONE);
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
		place_failed(o, r);
	else if (st.ino != was->ino ||
		 (!verified && (st.mode != was->mode || st.uid != was->uid || st.gid != was->gid)))
		place_result(o, APPLY_CHANGED);
	else
		set_on(p, i, fd, NULL, o);
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
		place_failed(o, r);
		return;
	}
	stamp_of(&st, &o->stamp);
	p->touched.many = true; /* a symlink has no descriptor to sync */
	place_result(o, APPLY_DONE);
}

void place_set_object(struct place *p, const struct intent *i, const struct row *ours,
	bool verified, int dir, const char *name, struct place_outcome *o)
{
	cleanup(held_deinit) struct held h = {.fd = -1};
	int r = 0;

	if (i->record.kind == RECORD_DIRECTORY) {
		set_directory(p, i, ours, verified, dir, name, o);
		return;
	}
	if (!verified && !place_hold(p, dir, name, ours, &h, o))
		return;
	if (i->record.kind == RECORD_SYMLINK) {
		set_symlink(p, i, dir, name, o);
		return;
	}
	if (h.fd < 0)
		r = verified ? file_open_read(dir, name, &h.fd) : FILE_DENIED;
	if (r != 0)
		place_failed(o, r);
	else
		set_on(p, i, h.fd, &h, o);
}

void place_set(struct place *p, const struct intent *i, const struct row *ours, bool verified,
	struct place_outcome *o)
{
	cleanup_close int dir = -1;
	const char *name;
	int r = file_open_parent(store_root(p->store), i->path, &dir, &name);

	if (r != 0)
		place_failed(o, r);
	else
		place_set_object(p, i, ours, verified, dir, name, o);
}

int place_finish_directory(struct place *p, const struct intent *i, struct place_outcome *o)
{
	cleanup_close int dir = -1, fd = -1;
	bool taken = i->has_record && i->becomes == INTENT_TAKEN && i->record.live;
	const char *name;
	struct file_stat st;
	struct stamp stamp;
	int r = file_open_parent(store_root(p->store), i->path, &dir, &name);

	if (r == 0)
		r = file_open_directory_at(dir, name, &fd);
	if (r == 0)
		r = file_stat_fd(fd, &st);
	if (r < 0 || r == FILE_DENIED) /* it was just made */
		return r < 0 ? r : -EACCES;
	if (r == 0)
		stamp_of(&st, &stamp);
	if (r == FILE_VANISHED || (r == 0 && (st.ino != i->staged_stamp.ino || stamp.mode != i->staged_stamp.mode ||
						     stamp.uid != i->staged_stamp.uid || stamp.gid != i->staged_stamp.gid))) {
		if (taken) /* a user's: if his is private, too, that is his doing */
			o->stamp.mode = i->record.mode;
		return 0;
	}
	if (r != 0)
		return 0; /* the row keeps the staged one's stamp */
	o->looked_ns = clock_wall_ns();
	if (taken) {
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
