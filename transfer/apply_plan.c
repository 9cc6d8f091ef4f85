/*
 * transfer/apply_plan.c — from decisions to intents; see transfer/apply_internal.h and DESIGN §3
 * "The tree is derived".
 *
 *   decide each → what lies below is decided first (deepest first) → directories on the way
 * (shallow first) → again → conflict names → staging
 *
 * Invariants of a plan:
 * 1. A path has one change of the disk at most. Where two would be needed (a new file whose content
 * must go aside, and an implied directory in the place of an old one), it is skipped: such trees
 * are on their way to being another.
 * 2. A directory goes, or becomes something else, only if nothing below it is undecided in this
 * batch.
 * 3. What lands has directories all the way, by the index or by this batch.
 */
#include "transfer/apply_internal.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/defect.h"
#include "merkle/path.h"
#include "tombstones/conflict.h"

#define CONFLICT_NUMBERS_MAX 10000

/* --- what is here, and what will be --- */

static bool directory_here(const struct row *row)
{
	return row->place == ROW_IMPLIED ||
	       (row->place == ROW_ON_DISK && row_live(row) && row->record.kind == RECORD_DIRECTORY);
}

/* A file or symlink of the index on this disk. */
static bool object_here(const struct row *row)
{
	return row->place == ROW_ON_DISK && row_live(row) && row->record.kind != RECORD_DIRECTORY;
}

static bool live_after(const struct change *c)
{
	if (c->writes && c->intent.becomes == INTENT_TAKEN)
		return c->intent.record.live;
	if (c->drop || (c->writes && c->intent.becomes == INTENT_DELETED))
		return false;
	return row_live(&c->row);
}

bool change_lands_as_object(const struct change *c)
{
	return c->writes && c->intent.op == INTENT_PUT && c->intent.becomes == INTENT_TAKEN &&
	       c->intent.record.live && c->intent.record.kind != RECORD_DIRECTORY;
}

bool change_lands(const struct change *c)
{
	return c->writes && (c->intent.op == INTENT_PUT || c->intent.op == INTENT_PUT_ASIDE);
}

static bool becomes_directory(const struct change *c)
{
	return c->writes && c->intent.op == INTENT_PUT &&
	       (c->intent.place == ROW_IMPLIED || c->intent.record.kind == RECORD_DIRECTORY);
}

enum row_place plan_place(const struct apply_options *o, const char *path, const struct record *r)
{
	const struct file_abilities *able = store_abilities(replica_store(o->replica));

	if (!r->live)
		return ROW_NOT_HERE;
	if (o->ignore && ignore_match(o->ignore, path, r->kind == RECORD_DIRECTORY))
		return ROW_IGNORED;
	if (r->kind == RECORD_FILE || r->kind == RECORD_DIRECTORY ||
		(r->kind == RECORD_SYMLINK && able->symlink))
		return ROW_ON_DISK;
	return ROW_UNSUPPORTED;
}

/* --- what one decision means --- */

static bool keeps_both(const struct apply_options *o)
{
	return o->taker_loses || !o->policy || o->policy->kind == DECIDE_KEEP_BOTH;
}

/* The old object goes, and nothing takes its place. */
static void plan_removal(struct batch *b, struct change *c)
{
	struct intent *i = &c->intent;
	bool directory = directory_here(&c->row);
	const struct apply_options *o = b->options;

	if (o->ignore && ignore_match(o->ignore, c->path, directory))
		return; /* untracked by now: left as it is */
	if (c->row.place == ROW_IMPLIED) {
		if (i->becomes == INTENT_TAKEN && i->record.live)
			change_skip(c, APPLY_BLOCKED, 0);
		i->place = ROW_IMPLIED;
	} else if (directory) {
		i->op = INTENT_REMOVE;
		i->fate = INTENT_RMDIR;
	} else if (object_here(&c->row)) {
		i->op = INTENT_REMOVE;
		i->fate = c->decision.action == DECIDE_ASIDE && keeps_both(o) ? INTENT_ASIDE
									      : INTENT_TRASH;
	}
}

static void plan_take(struct batch *b, struct change *c)
{
	const struct apply_options *o = b->options;
	struct intent *i = &c->intent;
	const struct record *r = &i->record;
	bool aside = c->decision.action == DECIDE_ASIDE;

	/* What lost is known here by record only: who has it must put it aside first. */
	if (aside && row_live(&c->row) && c->row.record.kind != RECORD_DIRECTORY &&
		c->row.place != ROW_ON_DISK) {
		change_skip(c, APPLY_WAIT, 0);
		return;
	}
	i->place = plan_place(o, c->path, r);
	if (i->place != ROW_ON_DISK) {
		plan_removal(b, c);
		return;
	}
	if (directory_here(&c->row) && r->kind == RECORD_DIRECTORY) {
		i->op = INTENT_SET;
		return;
	}
	if (r->kind == RECORD_FILE && !c->item->staged && !c->item->move_from) {
		change_skip(c, APPLY_NEEDS_CONTENT, 0);
		return;
	}
	i->op = INTENT_PUT;
	if (directory_here(&c->row))
		i->fate = INTENT_RMDIR;
	else if (object_here(&c->row))
		i->fate = aside && keeps_both(o) && !DEFECT(LOSER_TRASHED) ? INTENT_ASIDE : INTENT_TRASH;
}

static void plan_merge(struct change *c)
{
	struct intent *i = &c->intent;

	i->place = i->record.live || c->row.place == ROW_IMPLIED ? c->row.place : ROW_NOT_HERE;
	if (c->row.place == ROW_ON_DISK && i->record.live &&
		(c->decision.attributes_moved || c->decision.mtime_moved))
		i->op = INTENT_SET;
}

/* Taken as it is at the peer: the feed to that peer passes over it. */
static uint64_t source_of(const struct batch *b, const struct change *c)
{
	return c->item->theirs && record_equal(&c->intent.record, c->item->theirs)
		       ? b->options->source
		       : 0;
}

/* Is what was recorded there still? A user may have taken it away since, or his deletion is held. */
static bool is_there(const struct batch *b, const char *path, const struct row *row)
{
	cleanup_close int dir = -1;
	struct file_stat st;
	struct stamp stamp;
	const char *name;

	if (row->place != ROW_ON_DISK || file_open_parent(store_root(b->store), path, &dir, &name) != 0 || file_stat_at(dir, name, &st) != 0)
		return false;
	stamp_of(&st, &stamp);
	return stamp_equal(&stamp, &row->stamp);
}

/* The peer has put aside there once more what a user here took away since, which is not told yet: his deletion must not come to know of
 * that, or it would take the only copy. (A directory's rows below have their own.) */
static bool copy_made_anew(const struct batch *b, const struct change *c)
{
	return c->decision.action == DECIDE_MERGE && conflict_is_copy(c->path) && row_live(&c->row) && c->row.place == ROW_ON_DISK &&
	       c->row.record.kind != RECORD_DIRECTORY &&
	       !version_dots_equal(&c->decision.record.dots, &c->row.record.dots) && !is_there(b, c->path, &c->row);
}

static int plan_decision(struct batch *b, struct change *c)
{
	struct intent *i = &c->intent;
	enum decide_action action = c->decision.action;
	bool kept = action == DECIDE_MERGE || action == DECIDE_RENEW, taken = kept || action == DECIDE_TAKE || action == DECIDE_ASIDE;
	int r;

	if (action == DECIDE_WAIT)
		change_skip(c, APPLY_WAIT, 0);
	if (action == DECIDE_DROP)
		c->drop = c->row.place != ROW_IMPLIED &&
			  b->now_ns - c->row.since_ns >= b->options->grace_ns;
	if (copy_made_anew(b, c)) {
		change_skip(c, APPLY_CHANGED, 0);
		return 0;
	}
	if (!taken && action != DECIDE_DELETE)
		return 0;
	c->writes = true;
	i->becomes = taken ? INTENT_TAKEN : INTENT_DELETED;
	i->has_record = true;
	r = record_copy(&i->record, taken ? &c->decision.record : &c->row.record);
	if (r != 0)
		return r;
	if (taken)
		i->source = source_of(b, c);
	if (kept)
		plan_merge(c);
	else if (taken && i->record.live)
		plan_take(b, c);
	else
		plan_removal(b, c);
	return 0;
}

static int plan_item(struct batch *b, struct replica_txn *t, struct apply_item *item)
{
	struct change *c;
	struct decide_input in = {
		.theirs = item->theirs,
		.our_k = knowledge_of(&t->knowledge, item->path),
		.their_k = item->their_k,
		.lineage = replica_lineage(b->options->replica),
		.taker_loses = b->options->taker_loses,
		.revert = b->options->revert,
		.policy = b->options->policy,
	};
	int r = batch_add(b, t->index, item->path, item, &c);

	if (r != 0 || change_skipped(c))
		return r;
	in.ours = row_has_record(&c->row) ? &c->row.record : NULL;
	r = decide(&in, &c->decision);
	return r == 0 ? plan_decision(b, c) : r;
}

/* --- conflict names --- */

/* Does another change of this batch go there? */
static bool name_planned(const struct batch *b, const struct change *c, const char *name)
{
	for (size_t k = 0; k < b->n; k++)
		if (b->v[k] != c && b->v[k]->intent.aside &&
			strcmp(b->v[k]->intent.aside, name) == 0)
			return true;
	return false;
}

/* May the content of `lost` be kept under this name? */
static bool name_free(const struct batch *b, const char *name, const struct row *row, const struct record *lost, bool *ret_there)
{
	*ret_there = false;
	if (row_live(row)) {
		*ret_there = record_same_state(&row->record, lost) && is_there(b, name, row);
		return *ret_there;
	}
	return row->place == ROW_NOT_HERE;
}

/* Where there is no name, trash has to do. */
static int choose_name(
	struct batch *b, struct index_txn *t, struct change *c, const struct record *lost)
{
	struct intent *i = &c->intent;

	for (unsigned n = 1; n < CONFLICT_NUMBERS_MAX; n++) {
		cleanup(row_deinit) struct row row = {0};
		cleanup_free char *name = conflict_path(c->path, &lost->content.root, n);
		struct change *other;
		bool there;
		int r;

		if (!name)
			return -ENOMEM;
		if (!path_valid(name))
			break;
		other = batch_find(b, name);
		if (other && (other->writes || change_skipped(other))) {
			change_skip(c, APPLY_CHANGED, 0); /* when that one is settled, again */
			return 0;
		}
		r = index_get(t, name, &row);
		if (r < 0)
			return r;
		if (name_free(b, name, &row, lost, &there) && !name_planned(b, c, name)) {
			i->aside = steal(name);
			i->aside_there = there;
			return 0;
		}
	}
	if (i->op == INTENT_PUT_ASIDE)
		change_skip(c, APPLY_FAILED, -ENAMETOOLONG);
	i->fate = INTENT_TRASH;
	return 0;
}

/* --- the tree's rules --- */

/* The first row that may be below: keys of long names are cut, their order is then not that of the
 * tree. */
static int seek_below(struct index_cursor *cursor, const char *path)
{
	struct path_key key;

	path_key(&key, path);
	if (key.len > PATH_KEY_PREFIX)
		key.len = PATH_KEY_PREFIX;
	return index_cursor_seek_key(cursor, &key);
}

/* Could rows below `above` still follow after `path`, which is none? */
static bool more_below(const char *path, const char *above)
{
	return strcmp(path, above) == 0 ||
	       (strlen(above) >= PATH_KEY_PREFIX && strncmp(path, above, PATH_KEY_PREFIX) == 0);
}

/*
 * Was this version of `path` dealt with where c comes from? Then what c is told to be stands there instead of it, and only this
 * round still shows both: its rows were read one after the other while users went on, or the peer is itself in the middle of a round
 * with somebody else. Known are the versions that the peer's K covers, and those before the event that made c: counters are a
 * replica's, not a path's. But a vector may come to c by joining, without its maker's having met what else it covers: where the
 * peer names an exception, that is what it knows, or both would wait for ever. Exceptions made since the round began are not
 * seen: what is left for this round because of that is dealt with in the next.
 */
static bool peer_knows(const struct batch *b, const struct change *c, const char *path, const struct record *r)
{
	const struct version_lineage *l = replica_lineage(b->options->replica);
	const struct knowledge *told = b->options->their_knowledge;
	const struct version_vector *k = told ? knowledge_of(told, path) : NULL;

	if (!c->item)
		return false;
	if (k && k != &told->k) /* an exception */
		return version_vector_leq(&r->vv, k, l);
	return version_vector_leq(&r->vv, c->item->their_k, l) ||
	       (c->item->theirs && version_vector_leq(&r->vv, &c->item->theirs->vv, l));
}

/* Did this version come in a round whose K is not joined yet? What its author had seen is not known so long. */
static bool is_coming(const struct batch *b, const struct knowledge *ours, const char *path, const struct record *r)
{
	return !version_vector_leq(&r->vv, knowledge_of(ours, path), replica_lineage(b->options->replica));
}

/* What is live strictly below a change once its batch is done. */
struct below {
	const struct knowledge *ours; /* K */
	bool live;
	bool unknown; /* some of it is not known to the peer that told the change … */
	bool coming;  /* … and some of that is_coming() */
};

static void below_add(const struct batch *b, const struct change *c, const char *path, const struct record *r, struct below *ret)
{
	ret->live = true;
	if (peer_knows(b, c, path, r))
		return;
	ret->unknown = true;
	ret->coming = ret->coming || is_coming(b, ret->ours, path, r);
}

static int rows_below_stay(const struct batch *b, struct index_txn *t, const struct change *c, struct below *ret)
{
	struct index_cursor *cursor;
	int r = index_cursor_open(t, &cursor);

	if (r != 0)
		return r;
	for (r = seek_below(cursor, c->path); r == 0 && !ret->coming; r = index_cursor_next(cursor)) {
		cleanup_free char *path = NULL;
		cleanup(row_deinit) struct row row = {0};

		r = index_cursor_get(cursor, &path, &row);
		if (r != 0)
			break;
		if (path_is_below(path, c->path)) {
			if (row_live(&row) && !batch_find(b, path))
				below_add(b, c, path, &row.record, ret);
		} else if (!more_below(path, c->path)) {
			break;
		}
	}
	index_cursor_close(cursor);
	return r < 0 ? r : 0;
}

/* O(what this batch changes below, and rows below). */
static int live_below_after(const struct batch *b, const struct replica_txn *t, const struct change *c, struct below *ret)
{
	int r;

	*ret = (struct below){.ours = &t->knowledge};
	for (size_t k = batch_below(b, c); k < b->n && !ret->coming && path_is_below(b->v[k]->path, c->path); k++) {
		const struct change *d = b->v[k];

		if (live_after(d))
			below_add(b, c, d->path, d->writes && d->intent.becomes == INTENT_TAKEN ? &d->intent.record : &d->row.record, ret);
	}
	if (ret->coming)
		return 0;
	r = index_any_live_below(t->index, c->path);
	return r <= 0 ? r : rows_below_stay(b, t->index, c, ret);
}

/* A live non-directory over live children goes aside, and leaves a tombstone. */
static int over_children(struct batch *b, struct index_txn *t, struct change *c)
{
	struct intent *i = &c->intent;

	if (!directory_here(&c->row)) {
		change_skip(c, APPLY_BLOCKED, 0);
		return 0;
	}
	i->op = INTENT_PUT_ASIDE;
	i->fate = INTENT_NO_OLD;
	i->becomes = INTENT_DELETED;
	i->place = ROW_IMPLIED;
	i->source = 0;
	return choose_name(b, t, c, &i->record);
}

static bool goes(const struct change *c)
{
	return c->writes && directory_here(&c->row) &&
	       (c->intent.op == INTENT_REMOVE || change_lands_as_object(c) || !live_after(c));
}

static int plan_below(struct batch *b, struct replica_txn *t, struct change *c)
{
	struct intent *i = &c->intent;
	struct below below;
	int r;

	if ((!goes(c) && !change_lands_as_object(c)) || DEFECT(BELOW_UNCHECKED))
		return 0;
	if (batch_skipped_below(b, c)) {
		change_skip(c, APPLY_BLOCKED, 0);
		return 0;
	}
	r = live_below_after(b, t, c, &below);
	if (r != 0 || !below.live)
		return r;
	if (change_lands_as_object(c)) {
		/* who made what is coming may have seen this go: his K says so, once it is joined */
		if (below.unknown && !(below.coming && replica_other_round(b->options->replica)))
			return over_children(b, t->index, c);
		change_skip(c, APPLY_BLOCKED, 0);
		return 0;
	}
	if (i->op != INTENT_REMOVE)
		return 0;
	if (live_after(c)) { /* of a kind that this disk can't hold */
		change_skip(c, APPLY_BLOCKED, 0);
		return 0;
	}
	i->op = INTENT_RECORD;
	i->fate = INTENT_NO_OLD;
	i->place = ROW_IMPLIED;
	return 0;
}

enum way { WAY_OPEN, WAY_BLOCKED, WAY_COLLIDES };

/* A file of ours where a directory is needed: aside with it, if it was not to go anyway. */
static int replace_by_directory(struct batch *b, struct index_txn *t, struct change *c)
{
	struct intent *i = &c->intent;
	bool goes_anyway = c->writes && i->op == INTENT_REMOVE;
	int r;

	i->op = INTENT_PUT;
	i->place = ROW_IMPLIED;
	if (goes_anyway)
		return 0;
	if (!c->writes) {
		r = record_copy(&i->record, &c->row.record);
		if (r != 0)
			return r;
	}
	c->writes = i->has_record = true;
	i->source = 0;
	i->becomes = INTENT_DELETED;
	i->fate = INTENT_ASIDE;
	return choose_name(b, t, c, &c->row.record);
}

/* Did whoever put it there perhaps delete what is to land below before? His K says so, once it is joined. */
static bool still_to_be_known(const struct batch *b, const struct replica_txn *t, const struct change *c)
{
	return is_coming(b, &t->knowledge, c->path, &c->row.record) && replica_other_round(b->options->replica);
}

/* See to it that c will be a directory, for what is to land below. */
static int make_way(struct batch *b, struct replica_txn *t, struct change *c, const struct change *lands, enum way *ret)
{
	struct intent *i = &c->intent;

	*ret = WAY_OPEN;
	if (directory_here(&c->row) || becomes_directory(c))
		return 0;
	*ret = c->row.place == ROW_COLLIDES && !c->writes ? WAY_COLLIDES : WAY_BLOCKED;
	if (*ret == WAY_COLLIDES || change_skipped(c) || change_lands_as_object(c))
		return 0;
	if (object_here(&c->row) && !c->writes && (peer_knows(b, lands, c->path, &c->row.record) || still_to_be_known(b, t, c)))
		return 0;
	if (object_here(&c->row) && !(c->writes && i->op == INTENT_REMOVE && live_after(c))) {
		int r = replace_by_directory(b, t->index, c);

		*ret = change_skipped(c) ? WAY_BLOCKED : WAY_OPEN;
		return r;
	}
	if (live_after(c))
		return 0;
	if (!c->writes)
		i->becomes = INTENT_UNCHANGED;
	c->drop = false;
	c->writes = true;
	i->op = INTENT_PUT;
	i->fate = INTENT_NO_OLD;
	i->place = ROW_IMPLIED;
	*ret = WAY_OPEN;
	return 0;
}

static int plan_way(struct batch *b, struct replica_txn *t, const struct change *lands, enum way *ret)
{
	const char *path = lands->path;
	cleanup_free char *at = strdup(path);
	int r = at ? 0 : -ENOMEM;

	*ret = WAY_OPEN;
	for (size_t k = 0; r == 0 && *ret == WAY_OPEN && path[k]; k++) {
		struct change *c;

		if (path[k] != '/')
			continue;
		at[k] = '\0';
		c = batch_find(b, at);
		if (!c)
			r = batch_add(b, t->index, at, NULL, &c);
		if (r == 0)
			r = make_way(b, t, c, lands, ret);
		at[k] = '/';
	}
	return r;
}

/* A name that can't be here: recorded only. */
static void not_held(struct change *c)
{
	struct intent *i = &c->intent;

	if (i->becomes != INTENT_TAKEN || i->fate != INTENT_NO_OLD) {
		change_skip(c, APPLY_BLOCKED, 0);
		return;
	}
	i->op = INTENT_RECORD;
	i->place = ROW_COLLIDES;
}

/* Directories on the way to what lands. Adds changes: therefore over a copy of the list. */
static int plan_ways(struct batch *b, struct replica_txn *t)
{
	size_t n = b->n;
	struct change **v = malloc(n * sizeof(*v) + 1);
	int r = v ? 0 : -ENOMEM;

	if (v)
		memcpy(v, b->v, n * sizeof(*v));
	for (size_t k = 0; r == 0 && k < n; k++) {
		enum way way = WAY_OPEN;

		if (change_lands(v[k]))
			r = plan_way(b, t, v[k], &way);
		if (way == WAY_BLOCKED)
			change_skip(v[k], APPLY_BLOCKED, 0);
		if (way == WAY_COLLIDES)
			not_held(v[k]);
	}
	free(v);
	return r;
}

/* --- staging and intents --- */

static char *staging_name(struct batch *b, const char *suffix)
{
	char *name;

	return asprintf(&name, "apply-%016" PRIx64 "-%" PRIu32 "%s", b->id, b->names++, suffix) < 0
		       ? NULL
		       : name;
}

/* Does it land as a file's content? */
static bool lands_as_file(const struct change *c)
{
	const struct intent *i = &c->intent;

	return change_lands(c) && c->item && i->has_record && i->record.kind == RECORD_FILE &&
	       (i->place == ROW_ON_DISK || i->op == INTENT_PUT_ASIDE);
}

/* Is what the deletion takes out of the tree, as it is, what is to be put in? */
static bool fits(const struct batch *b, const struct change *from, const struct change *to)
{
	const struct intent *out = &from->intent, *in = &to->intent;
	const struct file_abilities *able = store_abilities(b->store);

	return from->writes && out->op == INTENT_REMOVE && out->fate == INTENT_TRASH && !from->moved_to &&
	       in->op == INTENT_PUT && in->fate == INTENT_NO_OLD && !able->fold_case && !able->fold_unicode &&
	       !batch_changes_above(b, from) && place_moves_as(&from->row, &in->record, b->options->preserve_owner);
}

static int plan_move(struct batch *b, struct change *to)
{
	struct change *from = to->item->move_from ? batch_find(b, to->item->move_from) : NULL;
	struct intent *in = &to->intent, *out;

	if (!from || !fits(b, from, to)) {
		change_skip(to, APPLY_NEEDS_CONTENT, 0);
		if (from && from->writes && from->intent.op == INTENT_REMOVE && !from->moved_to)
			change_skip(from, APPLY_NEEDS_CONTENT, 0); /* it is to be copied first */
		return 0;
	}
	out = &from->intent;
	to->moved_from = from;
	from->moved_to = to;
	out->fate = INTENT_MOVED;
	in->new_kind = RECORD_FILE;
	in->staged_stamp = from->row.stamp;
	in->staged = staging_name(b, "");
	out->displaced = in->staged ? strdup(in->staged) : NULL;
	return out->displaced ? 0 : -ENOMEM;
}

static int plan_moves(struct batch *b)
{
	int r = 0;

	for (size_t k = 0; r == 0 && k < b->n; k++)
		if (lands_as_file(b->v[k]) && !b->v[k]->item->staged)
			r = plan_move(b, b->v[k]);
	return r;
}

static int name_objects(struct batch *b, struct change *c)
{
	struct intent *i = &c->intent;
	bool exchange = store_abilities(b->store)->exchange, file = lands_as_file(c);

	if (c->moved_from || c->moved_to)
		return 0;
	if (change_lands(c)) {
		i->staged = file ? strdup(c->item->staged) : staging_name(b, "");
		c->staged_here = !file;
		if (!i->staged)
			return -ENOMEM;
	}
	if (i->fate == INTENT_NO_OLD || (i->op == INTENT_REMOVE && i->fate == INTENT_RMDIR))
		return 0;
	i->displaced = i->staged && exchange ? strdup(i->staged) : staging_name(b, "-old");
	return i->displaced ? 0 : -ENOMEM;
}

/* What the new object is to show; NULL: an implied directory. */
static const struct record *shown(const struct change *c)
{
	return c->intent.op == INTENT_PUT && c->intent.place == ROW_IMPLIED ? NULL
									    : &c->intent.record;
}

/* Rows have none of directories. Recovery must tell the old one from what a user put there since, which may have its number. */
static uint64_t directory_generation(const struct batch *b, const char *path)
{
	cleanup_close int dir = -1;
	const char *name;

	return file_open_parent(store_root(b->store), path, &dir, &name) == 0 ? place_generation(dir, name, RECORD_DIRECTORY) : 0;
}

static int plan_object(struct batch *b, struct change *c)
{
	struct intent *i = &c->intent;
	int r = (i->path = strdup(c->path)) ? 0 : -ENOMEM;

	if (r == 0)
		r = name_objects(b, c);
	if (r != 0)
		return r;
	i->preserve_owner = b->options->preserve_owner;
	i->had_row = c->had_row;
	i->seq = c->row.seq;
	if (c->had_row && (c->row.place == ROW_ON_DISK || c->row.place == ROW_IMPLIED)) {
		i->old = c->row.stamp;
		i->old_kind = c->row.place == ROW_IMPLIED ? RECORD_DIRECTORY : c->row.record.kind;
		if (i->old_kind == RECORD_DIRECTORY && i->op == INTENT_PUT)
			i->old.generation = directory_generation(b, c->path);
	}
	if (!i->staged || c->moved_from)
		return 0;
	r = place_stage(&b->place, i, shown(c), c->staged_here ? NULL : c->item->ready, b->n_staged <= SYNC_SET_MAX);
	if (r == -ENOMEM)
		return r;
	if (r != 0)
		change_skip(c, APPLY_FAILED, r);
	return 0;
}

/* Everything that will be linked in is durable before the intents are. */
static int plan_objects(struct batch *b)
{
	bool staged = false, symlinks = false;
	int r = 0;

	for (size_t k = 0; k < b->n; k++)
		b->n_staged += change_lands(b->v[k]) && b->v[k]->item && b->v[k]->item->staged;
	for (size_t k = 0; r == 0 && k < b->n; k++) {
		if (b->v[k]->writes)
			r = plan_object(b, b->v[k]);
		staged = staged || b->v[k]->intent.staged;
		symlinks = symlinks || b->v[k]->intent.new_kind == RECORD_SYMLINK;
	}
	if (r == 0 && (symlinks || b->n_staged > SYNC_SET_MAX)) /* a symlink's mtime has no descriptor to sync */
		r = file_syncfs(store_staging(b->store));
	else if (r == 0 && staged)
		r = file_fsync(store_staging(b->store));
	return r == FILE_UNSUPPORTED ? file_syncfs(store_staging(b->store)) : r;
}

int plan_batch(struct batch *b, struct replica_txn *t, struct apply_item *items, size_t n)
{
	int r = 0;

	for (size_t k = 0; r == 0 && k < n; k++)
		r = plan_item(b, t, &items[k]);
	for (size_t k = 0; r == 0 && k < b->n; k++)
		if (b->v[k]->writes && b->v[k]->intent.fate == INTENT_ASIDE)
			r = choose_name(b, t->index, b->v[k], &b->v[k]->row.record);
	for (size_t k = b->n; r == 0 && k-- > 0;)
		r = plan_below(b, t, b->v[k]);
	if (r == 0)
		r = plan_ways(b, t);
	if (r == 0)
		r = plan_moves(b);
	for (size_t k = b->n; r == 0 && k-- > 0;)
		if (goes(b->v[k]) && batch_skipped_below(b, b->v[k]))
			change_skip(b->v[k], APPLY_BLOCKED, 0);
	return r == 0 ? plan_objects(b) : r;
}
