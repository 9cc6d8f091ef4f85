/*
 * tombstones/observe_take.c — one observation, or absence, in a transaction: what becomes of the row, and of the object where it
 * is moved aside or taken back; see tombstones/observe_internal.h.
 */
#include "tombstones/observe_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/error.h"
#include "merkle/path.h"
#include "tombstones/conflict.h"
#include "tombstones/undo.h"

#define ASIDE_NAMES_MAX 1000

DEFINE_CLEANUP(struct index_cursor *, index_cursor_close)

static int paths_add(struct paths *p, const char *path)
{
	int r = array_reserve(&p->v, &p->cap, p->n + 1, sizeof(*p->v));
	char *copy;

	if (r)
		return r;
	copy = strdup(path);
	if (!copy)
		return -ENOMEM;
	p->v[p->n++] = copy;
	return 0;
}

/* --- what is written --- */

/* Make K not know the record, so that a peer's copy of it is taken again. -ENOSPC. */
static int forget(struct replica_txn *t, const char *path, const struct record *record)
{
	const struct version_vector *k = knowledge_of(&t->knowledge, path);
	bool known = false;

	for (size_t i = 0; i < record->dots.n && !known; i++)
		known = version_vector_has(k, record->dots.v[i], replica_lineage(t->replica));
	if (!known)
		return 0;
	return replica_forget(t, path);
}

static int put_nodes(struct replica_txn *t, const struct seen *s)
{
	for (size_t i = 0; i < s->n_nodes; i++) {
		const struct chunk_tree_node *n = &s->nodes[i];
		int r = index_node_put(t->index, &n->hash, n->level, n->payload, n->n);

		if (r)
			return r;
	}
	return 0;
}

/* It cannot be taken up now, and a person should know. */
static int leave(struct taking *x, struct seen *s, int error)
{
	s->told = true;
	s->error = error;
	x->stuck = true;
	return 0;
}

/* Is something in this look left as the index has it, so that it looks as if it raced, and will the next time? */
static bool leaves_any(const struct taking *x)
{
	return x->stuck || x->result->scan.errors;
}

/* Record an event for what is on disk. `made` is taken over. row: what the index has of the path, NULL if nothing. */
static int put_event(struct taking *x, struct replica_txn *t, struct seen *s, const char *path, enum replica_event_kind kind,
	const struct row *row, struct record *made, uint64_t *count)
{
	const struct record *old = row && row_has_record(row) ? &row->record : NULL;
	struct row put = {.place = ROW_ON_DISK, .stamp = s->stamp, .recorded_ns = s->looked_ns};
	int r = 0;

	if (x->suspect && old) {
		r = forget(t, path, old);
		if (r == -ENOSPC)
			return leave(x, s, r);
		old = NULL;
		kind = REPLICA_EVENT_STATE;
	}
	if (!r)
		r = put_nodes(t, s);
	if (!r)
		r = replica_event(t, kind, old, made);
	if (r)
		return r;
	put.record = *made;
	*made = (struct record){0};
	r = index_put(t->index, path, &put);
	row_deinit(&put);
	if (!r)
		++*count;
	return r;
}

/* The same version is on disk: only the local half changes. */
static int put_stamp(struct replica_txn *t, struct seen *s, struct row *row, uint8_t place, uint64_t *count)
{
	int r = put_nodes(t, s);

	row->place = place;
	row->stamp = s->stamp;
	row->recorded_ns = s->looked_ns;
	if (!r)
		r = index_restamp(t->index, s->path, row);
	if (!r)
		++*count;
	return r;
}

/* What this disk could not store stays as it is in the record: only what differs from the stamp is the user's doing. */
static void keep_unstored(struct record *found, const struct row *row)
{
	if (found->kind == RECORD_SYMLINK || found->mode == row->stamp.mode)
		found->mode = row->record.mode;
	if (found->uid == row->stamp.uid)
		found->uid = row->record.uid;
	if (found->gid == row->stamp.gid)
		found->gid = row->record.gid;
	if (found->kind == RECORD_DIRECTORY || found->mtime_ns == row->stamp.mtime_ns)
		found->mtime_ns = row->record.mtime_ns;
}

/* --- implied directories --- */

static int forget_implied(struct replica_txn *t, const char *path, struct row *row)
{
	if (!row_has_record(row))
		return index_drop(t->index, path);
	row->place = ROW_NOT_HERE;
	row->stamp = (struct stamp){0};
	return index_restamp(t->index, path, row);
}

/* The directory that is there only for what was below it. 0: gone, 1: it stays. */
static int remove_implied(struct store *store, const char *path, const struct row *row)
{
	cleanup_close int dir = -1;
	struct file_stat st;
	const char *name;
	int r = file_open_parent(store_root(store), path, &dir, &name);

	if (r == 0)
		r = file_stat_at(dir, name, &st);
	if (r == 0 && (st.kind != FILE_KIND_DIRECTORY || st.ino != row->stamp.ino))
		return 1;
	if (r == 0)
		r = file_rmdir(dir, name);
	/* Durable before its row goes: else it would come back as a user's. */
	return r == FILE_VANISHED || (r == 0 && file_fsync(dir) == 0) ? 0 : 1;
}

int observe_drop_implied(struct replica_txn *t, struct store *store, const char *path)
{
	cleanup_free char *at = strdup(path);
	int r = at ? 0 : -ENOMEM;

	while (r == 0 && path_parent_length(at)) {
		struct row row cleanup(row_deinit) = {0};

		at[path_parent_length(at)] = '\0';
		r = index_get(t->index, at, &row);
		if (r < 0)
			return r;
		if (r == INDEX_ABSENT || row.place != ROW_IMPLIED)
			return 0;
		r = index_any_live_below(t->index, at);
		if (r == 0)
			r = remove_implied(store, at, &row);
		if (r != 0)
			return r < 0 ? r : 0;
		r = forget_implied(t, at, &row);
	}
	return r;
}

/* One that is empty and needed by nothing: it could not be removed when the last thing in it went. */
static int take_implied(struct replica_txn *t, struct seen *s, struct row *row, struct tally *tally)
{
	struct store *store = replica_store(t->replica);
	int r = index_any_live_below(t->index, s->path);

	if (r == 0)
		r = remove_implied(store, s->path, row);
	if (r != 0)
		return r < 0 ? r : put_stamp(t, s, row, ROW_IMPLIED, &tally->restamped);
	r = forget_implied(t, s->path, row);
	return r == 0 ? observe_drop_implied(t, store, s->path) : r;
}

/* --- taking back --- */

/*
 * A version that descends from an event of ours may not be forgotten, as K goes on knowing that event: who has it would be told
 * that it was seen and deleted here. The user's change becomes one more event, and the session undoes them all.
 */
static enum observe_local local_of(const struct taking *x, const struct row *row)
{
	const struct replica *r = x->replica;

	for (size_t i = 0; i < row->record.vv.n; i++) {
		const struct version_incarnation *inc = version_lineage_find(replica_lineage(r), row->record.vv.v[i].inc);

		if (!inc || inc->replica == store_replica_id(replica_store(r)))
			return OBSERVE_RECORD;
	}
	return x->local;
}

static int leave_local(struct seen *s)
{
	s->told = true;
	s->error = OBSERVE_LOCAL;
	return 0;
}

/* The directory of what was undone may be a user's, too. */
static int note_emptied(struct taking *x, const char *path, size_t n)
{
	const char *last = x->emptied.n ? x->emptied.v[x->emptied.n - 1] : "";
	cleanup_free char *copy = NULL;

	if (!n || (strlen(last) == n && memcmp(last, path, n) == 0))
		return 0;
	copy = strndup(path, n);
	return copy ? paths_add(&x->emptied, copy) : -ENOMEM;
}

/* The row that something here was renamed from. */
struct origin {
	struct replica_txn *t;
	const struct seen *s;
	char *path; /* owned */
};

static int match_origin(const char *path, void *data)
{
	struct origin *o = data;
	struct row row cleanup(row_deinit) = {0};
	int dir cleanup_close = -1;
	struct file_stat st;
	const char *name;
	int r = index_get(o->t->index, path, &row);

	if (r || !row_live(&row) || row.place != ROW_ON_DISK || !record_same_state(&row.record, &o->s->state))
		return r < 0 ? r : 0;
	r = file_open_parent(store_root(replica_store(o->t->replica)), path, &dir, &name);
	if (!r)
		r = file_stat_at(dir, name, &st);
	if (r != FILE_VANISHED || dir < 0)
		return r < 0 ? r : 0;
	o->path = strdup(path);
	return o->path ? 1 : -ENOMEM;
}

/* 1: it is back where it was, and will be seen there. */
static int undo_new_name(struct replica_txn *t, const struct seen *s)
{
	struct origin o = {.t = t, .s = s};
	int r = index_by_inode(t->index, s->stamp.ino, match_origin, &o);

	if (r > 0)
		r = undo_rename(replica_store(t->replica), s->path, o.path) == 0;
	free(o.path);
	return r;
}

/* The row's version is to be fetched again. 1: K has no room for that now. */
static int give_up_row(struct replica_txn *t, const char *path, struct row *row, struct tally *tally)
{
	int r = row_live(row) ? forget(t, path, &row->record) : 0;

	if (r == -ENOSPC) {
		tally->waiting++;
		return 1;
	}
	if (r)
		return r;
	if (row_live(row))
		return index_drop(t->index, path);
	return row->place == ROW_IMPLIED ? forget_implied(t, path, row) : 0;
}

/* Something is there that the index does not have, or has otherwise. */
static int undo_found(struct taking *x, struct replica_txn *t, struct seen *s, struct row *row, struct tally *tally)
{
	bool directory = s->state.kind == RECORD_DIRECTORY;
	int r = 0;

	if (x->now == OBSERVE_LEAVE)
		return leave_local(s);
	if (!row_live(row))
		r = undo_new_name(t, s);
	if (r > 0) { /* the names below are other ones now, too */
		tally->undone++;
		tally->raced++;
		return note_emptied(x, s->path, path_parent_length(s->path));
	}
	if (!r)
		r = give_up_row(t, s->path, row, tally);
	if (r)
		return r < 0 ? r : 0;
	if (directory)
		return note_emptied(x, s->path, strlen(s->path));
	r = undo_object(replica_store(t->replica), s->path);
	if (r == FILE_VANISHED || r == FILE_IS_DIRECTORY) {
		tally->raced++;
		return 0;
	}
	if (r)
		return leave(x, s, r);
	tally->undone++;
	return note_emptied(x, s->path, path_parent_length(s->path));
}

static int undo_touched(struct taking *x, struct replica_txn *t, struct seen *s, struct row *row, struct tally *tally)
{
	int r;

	if (x->now == OBSERVE_LEAVE)
		return leave_local(s);
	r = undo_attributes(replica_store(t->replica), s->path, &s->stamp, &row->stamp, &s->stamp, &s->looked_ns);
	if (!r)
		return put_stamp(t, s, row, row->place, &tally->undone);
	if (r == FILE_BUSY || r == FILE_VANISHED) {
		tally->raced++;
		return 0;
	}
	return s->state.kind == RECORD_DIRECTORY ? leave(x, s, r) : undo_found(x, t, s, row, tally);
}

/* --- one observation --- */

static int take_touched(struct taking *x, struct replica_txn *t, struct seen *s, struct row *row, struct tally *tally)
{
	struct record made cleanup(record_deinit) = {0};
	enum replica_event_kind kind;
	bool attributes, mtime;
	int r = record_copy(&made, &row->record);

	if (r)
		return r;
	made.mode = s->state.mode;
	made.uid = s->state.uid;
	made.gid = s->state.gid;
	made.mtime_ns = s->state.mtime_ns;
	keep_unstored(&made, row);
	attributes = !record_same_attributes(&made, &row->record);
	mtime = made.mtime_ns != row->record.mtime_ns;
	if (!attributes && !mtime)
		return put_stamp(t, s, row, row->place, &tally->restamped);
	if (x->now)
		return undo_touched(x, t, s, row, tally);
	kind = attributes && mtime ? REPLICA_EVENT_BOTH : attributes ? REPLICA_EVENT_ATTRIBUTES : REPLICA_EVENT_MTIME;
	return put_event(x, t, s, s->path, kind, row, &made, &tally->touched);
}

static int take_changed(struct taking *x, struct replica_txn *t, struct seen *s, struct row *row, struct tally *tally)
{
	if (record_same_state(&s->state, &row->record))
		return take_touched(x, t, s, row, tally);
	if (x->now)
		return undo_found(x, t, s, row, tally);
	if (s->state.kind == row->record.kind)
		keep_unstored(&s->state, row);
	return put_event(x, t, s, s->path, REPLICA_EVENT_STATE, row, &s->state, &tally->changed);
}

/* Is this name free for a conflict copy? *ret: its tombstone's row, if any; empty otherwise. 1 yes, 0 no. */
static int aside_free(struct replica_txn *t, const char *path, struct row *ret)
{
	int r = index_get(t->index, path, ret);

	if (r)
		return r == INDEX_ABSENT ? 1 : r;
	return !row_live(ret) && ret->place == ROW_NOT_HERE;
}

/* Move the object to the first free name of a conflict copy. *ret_path: heap; *ret_row: that name's tombstone's row. */
static int move_aside(struct replica_txn *t, const struct seen *s, int dir, const char *name, char **ret_path, struct row *ret_row)
{
	for (unsigned n = 1; n <= ASIDE_NAMES_MAX; n++) {
		cleanup_free char *path = conflict_path(s->path, &s->state.content.root, n);
		struct row row cleanup(row_deinit) = {0};
		int r;

		if (!path)
			return -ENOMEM;
		if (!path_valid(path))
			return FILE_UNSUPPORTED;
		r = aside_free(t, path, &row);
		if (r < 0)
			return r;
		if (r == 0)
			continue;
		r = file_rename_noreplace(dir, name, dir, path_name(path));
		if (r == FILE_EXISTS)
			continue;
		if (r)
			return r;
		*ret_path = steal(path);
		*ret_row = row;
		row = (struct row){0};
		return 0;
	}
	return FILE_EXISTS;
}

/* Is it what the scan looked at? (the rename changed its ctime) */
static bool is_what_was_seen(const struct seen *s, const struct stamp *now)
{
	if (s->stamp.ino != now->ino)
		return false;
	return s->state.kind == RECORD_DIRECTORY || (s->stamp.size == now->size && s->stamp.mtime_ns == now->mtime_ns);
}

/*
 * The object stands where a version belongs that was never put there: it becomes a conflict copy, and the row is forgotten,
 * so that its version is fetched. If we crash in between, the next scan finds a new object and a free path.
 */
static int take_aside(struct taking *x, struct replica_txn *t, struct seen *s, const struct row *row, struct tally *tally)
{
	cleanup_free char *copy = NULL;
	struct row at cleanup(row_deinit) = {0};
	int dir cleanup_close = -1;
	struct file_stat st;
	struct stamp now;
	const char *name;
	int r = forget(t, s->path, &row->record);

	if (r == -ENOSPC)
		return leave(x, s, r);
	if (!r)
		r = file_open_parent(store_root(replica_store(t->replica)), s->path, &dir, &name);
	if (!r)
		r = move_aside(t, s, dir, name, &copy, &at);
	if (!r)
		r = file_stat_at(dir, path_name(copy), &st);
	if (r < 0 || (r && r != FILE_VANISHED))
		return r < 0 ? r : leave(x, s, r);
	if (!r)
		stamp_of(&st, &now);
	if (r == FILE_VANISHED || !is_what_was_seen(s, &now)) { /* a user was there: the next look finds what is */
		tally->raced++;
		return 0;
	}
	s->stamp = now;
	if (s->state.kind == RECORD_DIRECTORY)
		r = paths_add(&x->aside, s->path);
	if (r)
		return r;
	/* before the rows: else a power cut could leave a row whose object is back at its old name */
	r = file_fsync(dir);
	if (r < 0)
		return r;
	r = put_event(x, t, s, copy, REPLICA_EVENT_STATE, &at, &s->state, &tally->created);
	if (!r)
		r = index_drop(t->index, s->path);
	s->told = true;
	return r;
}

/* Does the index say that anything live strictly below the path is on disk, or (implied) a directory that is there for what was below
 * it? 1 yes, 0 no. */
static int any_on_disk_below(struct index_txn *t, const char *path, bool implied)
{
	struct index_cursor *c cleanup(index_cursor_close_p) = NULL;
	bool cut = strlen(path) + 1 >= PATH_KEY_PREFIX; /* the order of such long names is not that of paths */
	int r = index_any_live_below(t, path);

	if (r < 0 || (!r && !implied))
		return r;
	r = index_cursor_open(t, &c);
	if (!r)
		r = index_cursor_seek(c, path);
	for (; !r; r = index_cursor_next(c)) {
		struct row row cleanup(row_deinit) = {0};
		cleanup_free char *at = NULL;

		r = index_cursor_get(c, &at, &row);
		if (r)
			break;
		if (path_is_below(at, path)) {
			if (row.place == ROW_IMPLIED ? implied : row_live(&row) && row.place == ROW_ON_DISK)
				return 1;
		} else if (strcmp(at, path) != 0 && (!cut || strncmp(at, path, PATH_KEY_PREFIX - 1) != 0)) {
			break;
		}
	}
	return r < 0 ? r : 0;
}

static int take_new(struct taking *x, struct replica_txn *t, struct seen *s, struct row *row, struct tally *tally)
{
	bool directory = s->state.kind == RECORD_DIRECTORY;

	if (row_live(row)) {
		if (row->place == ROW_ON_DISK) {
			tally->raced++;
			return 0;
		}
		if (record_same_state(&s->state, &row->record))
			return put_stamp(t, s, row, ROW_ON_DISK, &tally->restamped);
		return x->now ? undo_found(x, t, s, row, tally) : take_aside(x, t, s, row, tally);
	}
	if (row->place == ROW_IMPLIED && directory)
		return put_stamp(t, s, row, ROW_IMPLIED, &tally->restamped);
	if (x->now)
		return undo_found(x, t, s, row, tally);
	return put_event(x, t, s, s->path, REPLICA_EVENT_STATE, row, &s->state, &tally->created);
}

static int take_ignored(struct replica_txn *t, struct seen *s, struct row *row)
{
	if (!row_live(row) || row->place == ROW_IGNORED)
		return 0;
	row->place = ROW_IGNORED;
	row->stamp = (struct stamp){0};
	return index_restamp(t->index, s->path, row);
}

/* Nothing is on disk, and it may be again: as if we had never seen it. */
static int take_unignored(struct taking *x, struct replica_txn *t, struct seen *s, const struct row *row, struct tally *tally)
{
	int r;

	if (!row_live(row) || (row->place != ROW_IGNORED && row->place != ROW_UNSUPPORTED)) {
		tally->raced++;
		return 0;
	}
	r = forget(t, s->path, &row->record);
	if (r == -ENOSPC)
		return leave(x, s, r);
	return r ? r : index_drop(t->index, s->path);
}

static bool is_below_aside(const struct taking *x, const char *path)
{
	for (size_t i = 0; i < x->aside.n; i++)
		if (path_is_below(path, x->aside.v[i]))
			return true;
	return false;
}

/* A directory, by its row, that is something else on disk now. */
static bool was_directory(const struct seen *s, const struct row *row)
{
	if ((s->what != SCAN_NEW && s->what != SCAN_CHANGED) || s->state.kind == RECORD_DIRECTORY)
		return false;
	return row->place == ROW_IMPLIED ||
	       (row->place == ROW_ON_DISK && row_live(row) && row->record.kind == RECORD_DIRECTORY);
}

/* Content that was recognised instead of read relies on another row's nodes: are they gone by now? 1 yes, 0 no. */
static int lacks_nodes(struct replica_txn *t, const struct seen *s)
{
	struct buf payload cleanup(buf_deinit) = BUF_INIT;
	uint8_t level;
	int r;

	if ((s->what != SCAN_NEW && s->what != SCAN_CHANGED) || !s->state.content.height || s->n_nodes)
		return 0;
	r = index_node_get(t->index, &s->state.content.root, &level, &payload);
	return r == INDEX_ABSENT ? 1 : r;
}

/* The observation moves from one list to another. */
static int seen_list_take(struct seen_list *l, struct seen *s)
{
	int r = array_reserve(&l->v, &l->cap, l->n + 1, sizeof(*l->v));

	if (r)
		return r;
	l->v[l->n++] = *s;
	*s = (struct seen){0};
	return 0;
}

int observe_take(struct taking *x, struct replica_txn *t, struct seen *s, bool late, struct tally *tally)
{
	struct row row cleanup(row_deinit) = {0};
	int r = index_get(t->index, s->path, &row);
	bool directory, on_disk;

	if (r < 0)
		return r;
	if (replica_unfinished(x->replica, s->path))
		return leave(x, s, OBSERVE_UNFINISHED);
	if ((r == 0) != s->had_row || row.seq != s->seq || is_below_aside(x, s->path)) {
		tally->raced++;
		return 0;
	}
	r = lacks_nodes(t, s);
	if (!r && !x->whole && s->what == SCAN_NEW)
		r = index_any_leaf_above(t->index, s->path); /* that is to be looked at first */
	if (r) {
		tally->raced += r > 0;
		return r < 0 ? r : 0;
	}
	directory = was_directory(s, &row);
	if (directory && !late)
		return seen_list_take(&x->late, s);
	/* of a few paths, one may have been a directory as those below it were looked at */
	r = directory || s->covers || (!x->whole && s->what == SCAN_NEW && s->state.kind != RECORD_DIRECTORY)
		    ? any_on_disk_below(t->index, s->path, directory)
		    : 0;
	if (r > 0 && !late)
		return seen_list_take(&x->late, s);
	if (r > 0 && leaves_any(x))
		return leave(x, s, OBSERVE_COVERS);
	if (r) {
		tally->raced += r > 0;
		return r < 0 ? r : 0;
	}
	x->now = local_of(x, &row);
	on_disk = row_live(&row) && row.place == ROW_ON_DISK;
	if (s->what == SCAN_NEW)
		return take_new(x, t, s, &row, tally);
	if (s->what == SCAN_IGNORED)
		return take_ignored(t, s, &row);
	if (s->what == SCAN_UNIGNORED)
		return take_unignored(x, t, s, &row, tally);
	if (on_disk && s->what == SCAN_CHANGED)
		return take_changed(x, t, s, &row, tally);
	if (on_disk && s->what == SCAN_TOUCHED)
		return take_touched(x, t, s, &row, tally);
	if (on_disk)
		return put_stamp(t, s, &row, row.place, &tally->restamped);
	if (row.place == ROW_IMPLIED && s->had_row && s->what != SCAN_CHANGED)
		return take_implied(t, s, &row, tally);
	tally->raced++;
	return 0;
}

/* --- one absence --- */

bool observe_is_deletion(const struct row *row, const struct gone *g)
{
	return row_live(row) && row->place == ROW_ON_DISK && row->seq == g->seq;
}

static int delete_event(struct replica_txn *t, const char *path, const struct row *row, struct tally *tally)
{
	struct row put = {.place = ROW_NOT_HERE, .since_ns = clock_wall_ns()};
	int r = replica_event(t, REPLICA_EVENT_DELETE, &row->record, &put.record);

	if (!r)
		r = index_put(t->index, path, &put);
	row_deinit(&put);
	if (!r)
		tally->deleted++;
	return r;
}

/* It is back where something was renamed back, and will be seen there; else it is fetched again. */
static int undo_gone(struct taking *x, struct replica_txn *t, const char *path, struct row *row, struct tally *tally)
{
	int dir cleanup_close = -1;
	struct file_stat st;
	const char *name;
	int r = file_open_parent(store_root(replica_store(x->replica)), path, &dir, &name);

	if (!r)
		r = file_stat_at(dir, name, &st);
	if (r != FILE_VANISHED) {
		tally->raced++;
		return r < 0 ? r : 0;
	}
	r = give_up_row(t, path, row, tally);
	tally->undone += r == 0;
	return r < 0 ? r : 0;
}

static int leave_gone(struct taking *x, struct gone *g, int why)
{
	x->stuck = true;
	g->left = why;
	return 0;
}

int observe_take_gone(struct taking *x, struct replica_txn *t, const char *path, struct gone *g, struct tally *tally)
{
	struct row row cleanup(row_deinit) = {0};
	int r = index_get(t->index, path, &row);

	if (r < 0)
		return r;
	if (replica_unfinished(x->replica, path))
		return leave_gone(x, g, OBSERVE_UNFINISHED);
	if (r == INDEX_ABSENT || row.seq != g->seq || (row.place != ROW_IMPLIED && !observe_is_deletion(&row, g)) ||
		is_below_aside(x, path)) {
		tally->raced++;
		return 0;
	}
	r = any_on_disk_below(t->index, path, false);
	if (r > 0 && leaves_any(x))
		return leave_gone(x, g, OBSERVE_COVERS);
	if (r) {
		tally->raced += r > 0;
		return r < 0 ? r : 0;
	}
	if (row.place == ROW_IMPLIED)
		return forget_implied(t, path, &row);
	x->now = local_of(x, &row);
	if (x->now)
		return undo_gone(x, t, path, &row, tally);
	if (!x->suspect)
		return delete_event(t, path, &row, tally);
	r = forget(t, path, &row.record);
	if (r == -ENOSPC)
		return leave_gone(x, g, r);
	return r ? r : index_drop(t->index, path);
}
