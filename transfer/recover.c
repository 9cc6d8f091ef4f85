/*
 * transfer/recover.c — see transfer/recover.h.
 *
 * Every step may be cut off and done again: what is found decides, not what was done before. The
 * intents go in the same transaction that records what they came to; after it, staging holds
 * nothing but what the intents that stay name. What cannot be looked at (an error of the disk)
 * keeps its intent, and nothing is concluded from it.
 *
 * A file system that keeps no order among names may lose that of a new directory, and keep those of
 * what had landed in it. So a directory that is found in staging is put in its place before what is
 * below is looked at; where that can't be, what is not there below may be in it, and was deleted by
 * nobody.
 */
#include "transfer/recover_internal.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/defect.h"
#include "merkle/path.h"
#include "transfer/settle.h"

#define TIME_SLACK_NS                                                              \
	(2 * CLOCK_NS_PER_S) /* a file system may round the times that it is given \
			      */

void recover_marker(char ret[RECOVER_MARKER_BYTES], uint64_t batch)
{
	snprintf(ret, RECOVER_MARKER_BYTES, "batch-%016" PRIx64, batch);
}

/* --- looking --- */

enum there { ABSENT, THERE, UNSEEN };

struct seen {
	enum there there;
	uint8_t kind; /* 0: none of ours */
	struct stamp stamp;
};

static void see_at(int dir, const char *name, struct seen *ret)
{
	static const uint8_t kinds[] = {
		[FILE_KIND_REGULAR] = RECORD_FILE,
		[FILE_KIND_DIRECTORY] = RECORD_DIRECTORY,
		[FILE_KIND_SYMLINK] = RECORD_SYMLINK,
		[FILE_KIND_OTHER] = 0,
	};
	struct file_stat st;
	int r = file_stat_at(dir, name, &st);

	*ret = (struct seen){.there = r == 0 ? THERE : r == FILE_VANISHED ? ABSENT : UNSEEN};
	if (r != 0)
		return;
	ret->kind = kinds[st.kind];
	stamp_of(&st, &ret->stamp);
	ret->stamp.generation = place_generation(dir, name, ret->kind);
}

/* Is a symlink on the way? Then nothing of ours is there. (What is behind a mount may be.) */
static bool behind_symlink(const struct recovery *v, const char *path)
{
	struct file_stat st;
	const char *name;

	for (const char *slash = strchr(path, '/'); slash; slash = strchr(slash + 1, '/')) {
		cleanup_free char *above = strndup(path, (size_t)(slash - path));
		cleanup_close int dir = -1;

		if (!above || file_open_parent(store_root(v->store), above, &dir, &name) != 0 ||
			file_stat_at(dir, name, &st) != 0)
			return false;
		if (st.kind == FILE_KIND_SYMLINK)
			return true;
	}
	return false;
}

static void see(const struct recovery *v, const char *path, struct seen *ret)
{
	cleanup_close int dir = -1;
	const char *name;
	int r = file_open_parent(store_root(v->store), path, &dir, &name);

	if (r == FILE_OUTSIDE && behind_symlink(v, path))
		r = FILE_VANISHED;
	*ret = (struct seen){.there = r == FILE_VANISHED ? ABSENT : UNSEEN};
	if (r == 0)
		see_at(dir, name, ret);
}

static void see_staged(const struct recovery *v, const char *name, struct seen *ret)
{
	*ret = (struct seen){.there = ABSENT};
	if (name)
		see_at(store_staging(v->store), name, ret);
}

static bool same_inode(const struct stamp *a, const struct stamp *b)
{
	return a->ino == b->ino &&
	       (!a->generation || !b->generation || a->generation == b->generation);
}

static bool is_new(const struct seen *s, const struct intent *i)
{
	return s->there == THERE && s->kind == i->new_kind &&
	       same_inode(&s->stamp, &i->staged_stamp);
}

static const struct row *row_of(const struct pending *e)
{
	return e->had_row ? &e->row : NULL;
}

/* Is what is in staging as `displaced` exactly what the row says? 1, 0; < 0: that can't be told now. No lease speaks for it:
 * its content must. What may not be read is taken for a user's: it may stay so, as the owner's mode says. */
static int is_old(struct recovery *v, const struct pending *e, const struct seen *s)
{
	const struct intent *i = &e->intent;
	int r;

	if (s->kind != i->old_kind || !same_inode(&s->stamp, &i->old))
		return 0;
	if (s->kind == RECORD_DIRECTORY)
		return 1;
	if (!place_same_object(&s->stamp, &i->old))
		return 0;
	if (!e->same_row || !e->had_row)
		return i->verified && i->fate == INTENT_TRASH;
	r = place_same_content(&v->place, store_staging(v->store), i->displaced, &e->row.record);
	return r == -EBUSY || (r == -EACCES && s->kind == RECORD_FILE) ? 0 : r;
}

/* Is staging as the batch left it? */
static enum there see_marker(const struct recovery *v, uint64_t batch)
{
	char name[RECOVER_MARKER_BYTES];
	struct seen s;

	recover_marker(name, batch);
	see_staged(v, name, &s);
	return s.there;
}

/* What is at `path` now, hashed. 0, FILE_BUSY …, < 0. */
static int look(struct recovery *v, const char *path, struct place_copy *ret)
{
	cleanup_close int dir = -1;
	const char *name;
	int r = file_open_parent(store_root(v->store), path, &dir, &name);

	if (r != 0)
		return r;
	ret->looked_ns = clock_wall_ns();
	return scan_look(v->store, dir, name, &ret->state, &ret->stamp, &ret->nodes, &ret->n_nodes);
}

/* --- what was in place before --- */

/* A copy that was moved to its conflict name before the end: its event is still to be made. false: it can't be looked at now. */
static bool find_aside(struct recovery *v, struct pending *e)
{
	const struct intent *i = &e->intent;
	struct place_copy c = {0};
	struct seen s;
	int r;

	if (i->fate != INTENT_ASIDE || i->aside_there || !e->same_row || !e->had_row)
		return true;
	see(v, i->aside, &s);
	if (s.there != THERE || !same_inode(&s.stamp, &i->old))
		return s.there != UNSEEN;
	r = look(v, i->aside, &c);
	if (r == 0 && record_same_state(&c.state, &e->row.record) && (c.path = strdup(i->aside))) {
		c.known = true;
		(void)place_add_copy(&e->outcome, &c);
	}
	place_copy_deinit(&c);
	return r >= 0;
}

/* Power was lost, and of the old object's way to its conflict name the last step is durable, others are not: it goes back, or
 * loses that name if it has its own still. */
static void undo_aside(struct recovery *v, struct pending *e)
{
	const struct intent *i = &e->intent;
	cleanup_close int dir = -1;
	struct seen aside;
	const char *name;

	if (i->fate != INTENT_ASIDE || i->aside_there || !e->same_row)
		return;
	see(v, i->aside, &aside);
	if (aside.there != THERE || !same_inode(&aside.stamp, &i->old) ||
		!place_same_object(&aside.stamp, &i->old))
		return;
	if (file_open_parent(store_root(v->store), i->path, &dir, &name) == 0 &&
		place_move(dir, path_name(i->aside), dir, name) == 0)
		place_touch(&v->place, steal_fd(dir));
	else
		(void)find_aside(v, e); /* else the next scan does */
}

/* false: what came out can't be looked at now, and stays. Then nothing is concluded from it. */
static bool dispose(struct recovery *v, struct pending *e, const struct seen *displaced)
{
	int old;

	if (displaced->there != THERE)
		return find_aside(v, e);
	if (DEFECT(STAGED_DELETED))
		return true;
	old = is_old(v, e, displaced);
	if (old >= 0)
		place_dispose(&v->place, &e->intent, row_of(e), old, &e->outcome);
	return old >= 0;
}

/* --- put --- */

/* A directory is as it was staged, private, or as it is to be; or a user's hand was at it. */
static enum verdict finish_directory(struct recovery *v, struct pending *e, const struct seen *at_path)
{
	struct place_outcome *o = &e->outcome;

	o->stamp = at_path->stamp;
	o->looked_ns = clock_wall_ns();
	if (at_path->stamp.mode == e->intent.staged_stamp.mode)
		return place_finish_directory(&v->place, &e->intent, o) == 0 ? DONE : UNKNOWN;
	if (e->intent.has_record)
		o->stamp.mode = e->intent.record.mode;
	return DONE;
}

/* What can't be hashed yet, or has other attributes by now, gets the staged one's stamp: the next scan looks at it. */
static void landed(struct pending *e, bool looked)
{
	struct place_outcome *o = &e->outcome;

	o->stamp = e->intent.staged_stamp;
	if (looked && place_same_object(&e->found.stamp, &e->intent.staged_stamp)) {
		o->stamp = e->found.stamp;
		o->looked_ns = e->found.looked_ns;
	}
}

static enum verdict finish_put(struct recovery *v, struct pending *e, const struct seen *at_path)
{
	struct intent *i = &e->intent;
	int r;

	if (i->new_kind == RECORD_DIRECTORY)
		return finish_directory(v, e, at_path);
	r = look(v, i->path, &e->found);
	if (r == 0 && !record_same_state(&e->found.state, &i->record)) {
		v->place.touched.many = true; /* what a user wrote, before it is recorded */
		return DONE_EDITED;
	}
	landed(e, r == 0);
	return DONE;
}

/* What came out goes to its name again: 0, or why not. */
static int put_back(struct recovery *v, const struct intent *i)
{
	cleanup_close int dir = -1;
	const char *name;
	int r = file_open_parent(store_root(v->store), i->path, &dir, &name);

	if (r == 0)
		r = place_move(store_staging(v->store), i->displaced, dir, name);
	if (r == 0)
		place_touch(&v->place, steal_fd(dir));
	return r;
}

/* Without exchange the old object may have a second name in staging, or be there alone while the
 * path is empty. */
static void undo_steps(struct recovery *v, struct pending *e, const struct seen *at_path,
	const struct seen *displaced)
{
	const struct intent *i = &e->intent;

	if (displaced->there != THERE)
		return;
	if (at_path->there == THERE && same_inode(&at_path->stamp, &displaced->stamp)) {
		(void)file_unlink(store_staging(v->store), i->displaced);
		return;
	}
	if (at_path->there != ABSENT || put_back(v, i) != 0)
		place_dispose(&v->place, i, row_of(e), false, &e->outcome);
}

/* Power was lost where names can't be exchanged: what was there is gone its way, and the new object is back in staging. A user's
 * deletion looks alike, but the new version, which he had not seen, beats it anyway. */
static bool left_empty(const struct recovery *v, const struct intent *i)
{
	struct seen at_path;

	if (!i->displaced || strcmp(i->staged, i->displaced) == 0)
		return false;
	see(v, i->path, &at_path);
	return at_path.there == ABSENT;
}

/* A new directory, or what is to be where nothing is left, goes to its place after all. */
static enum verdict put_staged(struct recovery *v, struct pending *e)
{
	struct intent i = e->intent; /* its strings stay */
	struct seen at_path;
	int r = 0;

	if (left_empty(v, &i))
		i.fate = INTENT_NO_OLD;
	else if (i.new_kind != RECORD_DIRECTORY)
		return NOT_DONE;
	if (e->same_row)
		r = place_run(&v->place, &i, row_of(e), &e->outcome);
	see(v, i.path, &at_path);
	if (is_new(&at_path, &i))
		return finish_put(v, e, &at_path);
	e->in_staging = true;
	return r < 0 || e->outcome.error < 0 || at_path.there == UNSEEN ? UNKNOWN : NOT_DONE;
}

/* The directory above it that could not be put in its place; NULL: none. */
static const struct pending *staged_above(const struct recovery *v, const struct pending *e)
{
	for (const struct pending *above = v->v; above < v->v + v->n; above++)
		if (above->in_staging && above->batch == e->batch &&
			path_is_below(e->intent.path, above->intent.path))
			return above;
	return NULL;
}

/* As an editor does that writes a new file and renames it: at the path is what a user put over the new object, or made instead
 * of it. */
static bool replaces(const struct seen *at_path, const struct intent *i)
{
	return at_path->there == THERE && at_path->kind && i->new_kind != RECORD_DIRECTORY &&
	       (at_path->kind != i->old_kind || !same_inode(&at_path->stamp, &i->old)); /* whose number may be used again */
}

static enum verdict recover_put(struct recovery *v, struct pending *e)
{
	const struct intent *i = &e->intent;
	const struct pending *above;
	struct seen at_path, staged, displaced = {.there = ABSENT};
	enum there landed;

	see(v, i->path, &at_path);
	see_staged(v, i->staged, &staged);
	if (i->displaced)
		see_staged(v, i->displaced, &displaced);
	if (at_path.there == UNSEEN || staged.there == UNSEEN || displaced.there == UNSEEN)
		return UNKNOWN;
	if (is_new(&displaced, i))
		displaced.there = ABSENT; /* one name for both, and not exchanged */
	if (is_new(&at_path, i))
		return dispose(v, e, &displaced) ? finish_put(v, e, &at_path) : UNKNOWN;
	if (is_new(&staged, i)) {
		undo_steps(v, e, &at_path, &displaced);
		undo_aside(v, e);
		return put_staged(v, e);
	}
	above = staged_above(v, e);
	if (above)
		return above->verdict;
	landed = displaced.there == THERE ? THERE : see_marker(v, e->batch);
	if (landed == UNSEEN || !dispose(v, e, &displaced))
		return UNKNOWN;
	if (landed == THERE && at_path.there == ABSENT)
		return DONE_DELETED;
	return landed == THERE && replaces(&at_path, i) ? finish_put(v, e, &at_path) : NOT_DONE;
}

static enum verdict recover_put_aside(struct recovery *v, struct pending *e)
{
	struct intent *i = &e->intent;
	struct seen aside;
	int r;

	if (i->aside_there)
		return NOT_DONE;
	see(v, i->aside, &aside);
	if (aside.there == UNSEEN)
		return UNKNOWN;
	r = is_new(&aside, i) ? look(v, i->aside, &e->found) : FILE_VANISHED;
	if (r != 0 || !record_same_state(&e->found.state, &i->record))
		return r < 0 ? UNKNOWN : NOT_DONE; /* what is there, the next scan finds */
	landed(e, true);
	return DONE;
}

/* --- move --- */

/* What is in staging between the halves of a move goes back. */
static enum verdict move_back(struct recovery *v, struct pending *from, const struct seen *at_path, const struct seen *displaced)
{
	const struct intent *i = &from->intent;
	int r, old;

	if (at_path->there == THERE && same_inode(&at_path->stamp, &displaced->stamp)) {
		(void)file_unlink(store_staging(v->store), i->displaced); /* the first half of a move without replacing */
		return NOT_DONE;
	}
	r = put_back(v, i);
	if (r == 0)
		return NOT_DONE;
	old = r < 0 ? r : is_old(v, from, displaced);
	if (old < 0)
		return UNKNOWN;
	place_dispose(&v->place, i, row_of(from), old, &from->outcome);
	return from->outcome.keep ? UNKNOWN : from->outcome.exact ? DONE : NOT_DONE;
}

/* The object is nowhere: it landed, and a user took it away; or in a directory that could not be put in its place. */
static enum verdict find_moved(struct recovery *v, struct pending *to, const struct seen *at_path)
{
	const struct pending *above = staged_above(v, to);
	enum there landed;

	if (above)
		return above->verdict;
	landed = see_marker(v, to->batch);
	if (landed != THERE)
		return landed == UNSEEN ? UNKNOWN : NOT_DONE;
	if (at_path->there == ABSENT)
		return DONE_DELETED;
	return replaces(at_path, &to->intent) ? finish_put(v, to, at_path) : NOT_DONE;
}

/* Is what is above it, and about to be a directory, not decided yet? No row stands below one that says that a file is there. */
static bool below_unknown(const struct recovery *v, const struct pending *e)
{
	for (const struct pending *above = v->v; above < e; above++)
		if (above->verdict == UNKNOWN && above->batch == e->batch && above->intent.op == INTENT_PUT &&
			path_is_below(e->intent.path, above->intent.path))
			return true;
	return false;
}

/* Both halves: neither is done, or both. */
static void recover_move(struct recovery *v, struct pending *from, struct pending *to)
{
	struct seen at_from, at_to, staged;

	see(v, from->intent.path, &at_from);
	see(v, to->intent.path, &at_to);
	see_staged(v, to->intent.staged, &staged);
	from->verdict = at_from.there == ABSENT ? DONE : NOT_DONE;
	if (at_from.there == UNSEEN || at_to.there == UNSEEN || staged.there == UNSEEN) {
		from->verdict = to->verdict = UNKNOWN;
	} else if (is_new(&at_to, &to->intent)) {
		if (is_new(&staged, &to->intent))
			(void)file_unlink(store_staging(v->store), to->intent.staged); /* a second name */
		to->verdict = finish_put(v, to, &at_to);
	} else if (staged.there == THERE) {
		from->verdict = move_back(v, from, &at_from, &staged);
		to->verdict = NOT_DONE;
	} else if (at_from.there == THERE && same_inode(&at_from.stamp, &from->intent.old)) {
		to->verdict = NOT_DONE;
	} else {
		to->verdict = find_moved(v, to, &at_to);
	}
	if (to->verdict == UNKNOWN || from->verdict == UNKNOWN || below_unknown(v, to))
		to->verdict = from->verdict = UNKNOWN;
}

static void settle_outcome(struct pending *e)
{
	struct place_outcome *o = &e->outcome;

	o->result = e->verdict == NOT_DONE || e->verdict == UNKNOWN ? APPLY_CHANGED : APPLY_DONE;
	o->keep = o->keep || e->verdict == UNKNOWN;
}

/* --- remove, set --- */

static enum verdict recover_remove(struct recovery *v, struct pending *e)
{
	const struct intent *i = &e->intent;
	struct seen at_path, displaced;
	int old = 1;

	see(v, i->path, &at_path);
	see_staged(v, i->displaced, &displaced);
	if (at_path.there == UNSEEN || displaced.there == UNSEEN)
		return UNKNOWN;
	if (displaced.there == THERE && i->fate == INTENT_MOVED)
		return move_back(v, e, &at_path, &displaced);
	if (displaced.there == THERE && at_path.there == THERE && same_inode(&displaced.stamp, &at_path.stamp)) {
		(void)file_unlink(store_staging(v->store), i->displaced); /* the first half of a move without replacing */
		return NOT_DONE;
	}
	if (displaced.there == ABSENT && at_path.there == THERE) {
		undo_aside(v, e);
		return NOT_DONE;
	}
	if (displaced.there == THERE)
		old = is_old(v, e, &displaced);
	if (old < 0)
		return UNKNOWN;
	if (!old) {
		if (put_back(v, i) != 0)
			place_dispose(&v->place, i, row_of(e), false, &e->outcome);
		return NOT_DONE;
	}
	return dispose(v, e, &displaced) ? DONE : UNKNOWN;
}

static bool near(int64_t a, int64_t b)
{
	return (a > b ? a - b : b - a) < TIME_SLACK_NS;
}

/* Is each attribute either what it was or what it was to be? Then nobody else set one. */
static bool ours_alone(const struct intent *i, const struct seen *s)
{
	const struct record *r = &i->record;

	if (s->there != THERE || s->kind != i->old_kind || !same_inode(&s->stamp, &i->old))
		return false;
	if (s->stamp.mode != i->old.mode && (s->stamp.mode & 01777) != (r->mode & 01777))
		return false;
	if ((s->stamp.uid != i->old.uid && s->stamp.uid != r->uid) ||
		(s->stamp.gid != i->old.gid && s->stamp.gid != r->gid))
		return false;
	return s->kind == RECORD_DIRECTORY || s->stamp.mtime_ns == i->old.mtime_ns ||
	       near(s->stamp.mtime_ns, r->mtime_ns);
}

static enum verdict recover_set(struct recovery *v, struct pending *e)
{
	const struct intent *i = &e->intent;
	struct seen at_path;
	int r;

	see(v, i->path, &at_path);
	if (at_path.there == UNSEEN)
		return UNKNOWN;
	if (!e->same_row || !ours_alone(i, &at_path))
		return NOT_DONE;
	if (at_path.kind != RECORD_DIRECTORY) {
		r = look(v, i->path, &e->found);
		if (r != 0 || !record_same_state(&e->found.state, &i->record))
			return r < 0 ? UNKNOWN : NOT_DONE;
	}
	place_set(&v->place, i, row_of(e), true, &e->outcome);
	return e->outcome.result == APPLY_DONE ? DONE : NOT_DONE;
}

static void recover_one(struct recovery *v, struct pending *e)
{
	struct place_outcome *o = &e->outcome;

	o->place = e->intent.place;
	if (e->moved_to)
		return; /* with the other half, whose directories are in place by then */
	if (e->moved_from) {
		e->moved_from->outcome.place = e->moved_from->intent.place;
		recover_move(v, e->moved_from, e);
		settle_outcome(e->moved_from);
		settle_outcome(e);
		return;
	}
	switch (e->intent.op) {
	case INTENT_PUT:
		e->verdict = recover_put(v, e);
		break;
	case INTENT_PUT_ASIDE:
		e->verdict = recover_put_aside(v, e);
		break;
	case INTENT_REMOVE:
		e->verdict = recover_remove(v, e);
		break;
	default:
		e->verdict = recover_set(v, e);
		break;
	}
	if (e->verdict != NOT_DONE && below_unknown(v, e))
		e->verdict = UNKNOWN;
	settle_outcome(e);
}

/* --- into the index --- */

/* A user's edit, or deletion, of the new version: an event that descends from it. */
static int settle_user(struct settle *s, struct pending *e)
{
	cleanup(row_deinit) struct row row = {0};
	bool edited = e->verdict == DONE_EDITED;
	int r;

	if (edited) {
		row.place = ROW_ON_DISK;
		row.stamp = e->found.stamp;
		row.recorded_ns = e->found.looked_ns;
		row.record = e->found.state;
		e->found.state = (struct record){0};
		r = settle_nodes(s, e->found.nodes, e->found.n_nodes);
	} else {
		row.since_ns = s->now_ns;
		r = record_copy(&row.record, &e->intent.record);
	}
	if (r == 0)
		r = replica_event(s->txn, edited ? REPLICA_EVENT_STATE : REPLICA_EVENT_DELETE,
			&e->intent.record, &row.record);
	return r == 0 ? index_put(s->txn->index, e->intent.path, &row) : r;
}

static int settle_pending(struct settle *s, struct pending *e)
{
	const struct intent *i = &e->intent;
	bool user = e->verdict == DONE_EDITED || e->verdict == DONE_DELETED;
	int r = settle_copies(s, i, row_of(e), &e->outcome);

	if (r != 0 || !e->same_row || e->verdict == NOT_DONE || e->verdict == UNKNOWN)
		return r;
	if (user && i->becomes == INTENT_TAKEN && i->record.live)
		return settle_user(s, e);
	if (e->verdict == DONE_DELETED) {
		/* An implied directory that is not there any more: its record stands all the same.
		 */
		if (i->becomes == INTENT_UNCHANGED)
			return 0;
		e->outcome.place = ROW_NOT_HERE;
	}
	return settle_row(s, i, row_of(e), &e->outcome, e->found.nodes, e->found.n_nodes);
}

static int put_again(struct replica_txn *t, struct pending *e)
{
	struct buf b = {.max_bytes = INTENT_BYTES_MAX};
	int r;

	e->intent.verified |= e->outcome.exact; /* the row is another one now */
	intent_put(&b, &e->intent);
	r = buf_error(&b);
	if (r == 0)
		r = index_intent_put(t->index, e->batch, e->number, b.data, b.len);
	buf_deinit(&b);
	return r;
}

static int drop_intents(struct recovery *v, struct replica_txn *t)
{
	int r = 0;

	/* In the order of the table: one batch after the other. */
	for (size_t k = 0; r == 0 && k < v->n; k++)
		if (k == 0 || v->v[k].batch != v->v[k - 1].batch)
			r = index_intent_drop_batch(t->index, v->v[k].batch);
	for (size_t k = 0; r == 0 && k < v->n; k++)
		if (v->v[k].outcome.keep)
			r = put_again(t, &v->v[k]);
	return r;
}

static int write_down(struct recovery *v, int64_t now_ns)
{
	struct replica_txn t;
	struct settle s = {.txn = &t, .now_ns = now_ns};
	int r = replica_begin(v->replica, &t);

	if (r != 0)
		return r;
	for (size_t k = 0; r == 0 && k < v->n; k++)
		r = settle_pending(&s, &v->v[k]);
	for (size_t k = 0; r == 0 && k < v->n; k++)
		r = settle_implied(&s, &v->place, v->v[k].intent.path);
	if (r == 0)
		r = place_sync(&v->place);
	if (r == 0)
		r = drop_intents(v, &t);
	if (r == 0)
		return replica_commit(&t);
	replica_abort(&t);
	return r;
}

/* --- reading the intents --- */

static int add_pending(uint64_t batch, uint32_t number, const void *p, size_t n, void *data)
{
	struct recovery *v = data;
	struct cursor c = cursor_over(p, n);
	struct pending *e;
	int r = array_reserve(&v->v, &v->cap, v->n + 1, sizeof(*v->v));

	if (r != 0)
		return r;
	e = &v->v[v->n++];
	*e = (struct pending){.batch = batch, .number = number};
	intent_get(&c, &e->intent);
	return cursor_finish(&c);
}

static int read_rows(struct recovery *v, struct index_txn *t)
{
	int r = 0;

	for (size_t k = 0; r >= 0 && k < v->n; k++) {
		struct pending *e = &v->v[k];

		r = index_get(t, e->intent.path, &e->row);
		e->had_row = r == 0;
		e->same_row = e->had_row == e->intent.had_row && e->row.seq == e->intent.seq;
	}
	return r < 0 ? r : 0;
}

static void pair_moves(struct recovery *v)
{
	for (struct pending *from = v->v; from < v->v + v->n; from++) {
		if (from->intent.fate != INTENT_MOVED)
			continue;
		for (struct pending *to = v->v; to < v->v + v->n; to++)
			if (to->batch == from->batch && to->intent.op == INTENT_PUT && strcmp(to->intent.staged, from->intent.displaced) == 0) {
				from->moved_to = to;
				to->moved_from = from;
			}
	}
}

static int is_first(struct recovery *v, struct index_txn *t)
{
	struct buf b = BUF_INIT;
	int r = index_meta_get(t, INDEX_META_RECOVERED, &b);

	v->first = r == INDEX_ABSENT;
	buf_deinit(&b);
	return r < 0 ? r : 0;
}

static int read_intents(struct recovery *v)
{
	struct index_txn *t;
	int r = index_begin_read(replica_index(v->replica), &t);

	if (r != 0)
		return r;
	r = index_intents(t, add_pending, v);
	if (r == 0)
		r = read_rows(v, t);
	if (r == 0)
		r = is_first(v, t);
	index_abort(t);
	pair_moves(v);
	return r;
}

/* --- what is left --- */

static int add_path(char **v, size_t *n, const char *path)
{
	v[*n] = strdup(path);
	return v[*n] ? (++*n, 0) : -ENOMEM;
}

/* Nothing there is an event until the next recovery. *ret: heap. */
static int list_unfinished(const struct recovery *v, char ***ret, size_t *ret_n)
{
	char **paths = calloc(2 * v->n + 1, sizeof(*paths)); /* with the names of conflict copies */
	int r = paths ? 0 : -ENOMEM;

	*ret = paths;
	for (size_t k = 0; r == 0 && k < v->n; k++) {
		const struct pending *e = &v->v[k];

		if (e->verdict != UNKNOWN)
			continue;
		r = add_path(paths, ret_n, e->intent.path);
		if (r == 0 && e->intent.aside)
			r = add_path(paths, ret_n, e->intent.aside);
	}
	return r;
}

static uint64_t count_settled(const struct recovery *v)
{
	uint64_t n = 0;

	for (size_t k = 0; k < v->n; k++)
		n += v->v[k].verdict != UNKNOWN;
	return n;
}

/* --- all of it --- */

static void recovery_deinit(struct recovery *v)
{
	for (size_t k = 0; k < v->n; k++) {
		struct pending *e = &v->v[k];

		intent_deinit(&e->intent);
		row_deinit(&e->row);
		place_outcome_deinit(&e->outcome);
		place_copy_deinit(&e->found);
	}
	free(v->v);
	place_deinit(&v->place);
}

static int write_first(struct recovery *v)
{
	struct index_txn *t;
	int r = index_begin_write(replica_index(v->replica), &t);

	if (r != 0)
		return r;
	r = index_meta_put(t, INDEX_META_RECOVERED, "", 1);
	if (r == 0)
		return index_commit(&t);
	index_abort(t);
	return r;
}

static int recover_locked(struct recovery *v, int64_t now_ns)
{
	int r = store_check_root(v->store) == 0 ? read_intents(v) : -ESTALE;

	if (r != 0)
		return r;
	for (size_t k = 0; k < v->n; k++)
		recover_one(v, &v->v[k]);
	v->place.touched.many = v->n > 0; /* what was done before the end may not be durable either */
	if (v->n > 0)
		r = place_sync(&v->place);
	if (r == 0 && v->n > 0)
		r = write_down(v, now_ns);
	if (r == 0)
		r = recover_empty_staging(v, now_ns);
	return r == 0 && v->first ? write_first(v) : r;
}

int apply_recover(struct replica *r, uint64_t *ret_settled)
{
	struct recovery v = {.replica = r, .store = replica_store(r)};
	int64_t now_ns = clock_wall_ns();
	char **unfinished = NULL;
	size_t n = 0;
	int e;

	place_init(&v.place, v.store, now_ns);
	replica_lock(r);
	e = recover_locked(&v, now_ns);
	if (e == 0)
		e = list_unfinished(&v, &unfinished, &n);
	replica_set_unfinished(r, unfinished, n);
	if (e != 0)
		replica_all_unfinished(r);
	replica_unlock(r);
	if (e == 0 && ret_settled)
		*ret_settled = count_settled(&v);
	recovery_deinit(&v);
	return e;
}
