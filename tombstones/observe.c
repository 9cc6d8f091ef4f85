/*
 * tombstones/observe.c — see tombstones/observe.h.
 *
 *   scan ── new, changed, touched … ──→ batch ──→ transaction (as the walk goes on: with a pool, on one of its threads)
 *        ── gone ──────────────────────→ kept ──→ budget ──→ transactions, deepest first ─┐
 *        (directory → something else) ─→ kept ────────────────────────────────────────────┴→ transaction
 *
 * Invariants:
 *  - An observation is used only if the row is still the one that the scan compared with: same sequence, and a place that
 *    goes with what was seen. Apply holds the writer lock from its intents to its rows, so whoever looked in between has
 *    seen a row that is another one now.
 *  - Absences are used only after scan_run returned 0.
 *  - A directory's record goes only when nothing below it is on disk as far as the index knows.
 *  - The counts of a batch enter the result once it is committed.
 *  - What is recorded is durable before: else a power cut takes back what peers were told, and the next scan sees a user's edit in it.
 */
#include "tombstones/observe.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#define HASH_NONFATAL_OOM 1 /* then the element has no table */
#include <uthash.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/sync.h"
#include "merkle/path.h"
#include "tombstones/conflict.h"
#include "tombstones/undo.h"

#define BATCH_BYTES_MAX (16 * 1024 * 1024) /* of chunk-tree nodes held */
#define BATCH_CONTENT_MAX (UINT64_C(1) << 30) /* of what was read: all of it again, if the process ends before the commit */
#define ASIDE_NAMES_MAX 1000

/* A copy of an observation. */
struct seen {
	enum scan_what what;
	char *path; /* owned */
	uint64_t seq;
	bool had_row, covers;
	struct record state;
	struct stamp stamp;
	int64_t looked_ns;
	struct chunk_tree_node *nodes; /* owned */
	size_t n_nodes;
	bool told; /* to be told after the commit, with error */
	int error;
};

struct seen_list {
	struct seen *v; /* owned */
	size_t n, cap;
	size_t bytes; /* of nodes */
	uint64_t content; /* bytes that were read */
};

struct gone {
	size_t path; /* offset into gone_list.text */
	uint64_t seq;
	bool had_row;
	int left; /* why it is left for now, which is told after the commit; 0: it is not */
};

struct gone_list {
	struct gone *v;	 /* owned */
	size_t n, cap;
	struct buf text; /* paths with their NULs */
};

/* Content that came to be somewhere: a rename's deletion does not count. */
struct appeared {
	uint64_t *v; /* XXH3 of contents, with doubles */
	size_t n, cap;
	bool *used; /* by a deletion; made when sorted */
	uint64_t directories;
};

struct tally {
	uint64_t created, changed, touched, deleted, restamped, raced, undone, waiting;
};

struct paths {
	char **v; /* owned */
	size_t n, cap;
};

/* A path that was observed: where paths to look at overlap, the first look counts. */
struct met {
	UT_hash_handle hh;
	char path[];
};

/* A full batch that is being recorded while the next one is filled. */
struct writing {
	struct pool_job job;
	struct run *run;
	bool busy;
	struct seen_list list;
	int result;
};

struct run {
	const struct observe_options *options;
	struct scan_options scan;
	bool whole;	 /* everything is looked at */
	struct met *met; /* NULL when one path is looked at; owned */
	bool overlaps;	 /* keep met */
	void (*directory)(int dirfd, const char *path, void *data);
	void *directory_data;
	struct observe_result *result;
	enum observe_local local; /* of this run */
	enum observe_local now;	  /* of the path that is being taken */
	bool suspect;
	bool stuck; /* something was left as it is that should not be */

	struct writing writing; /* while it is busy, what take() works with belongs to its thread */
	struct seen_list batch, late; /* late: directories that became something else */
	struct gone_list gone;
	struct appeared appeared;
	struct paths aside; /* directories moved aside: what was seen below is elsewhere now */
	struct paths emptied; /* directories to be removed if they are empty: a user's, with what was undone in them */
};

DEFINE_CLEANUP(struct index_txn *, index_abort)
DEFINE_CLEANUP(struct index_cursor *, index_cursor_close)

/* --- lists --- */

static void seen_deinit(struct seen *s)
{
	free(s->path);
	record_deinit(&s->state);
	scan_nodes_free(s->nodes, s->n_nodes);
	*s = (struct seen){0};
}

static void seen_list_clear(struct seen_list *l)
{
	for (size_t i = 0; i < l->n; i++)
		seen_deinit(&l->v[i]);
	l->n = 0;
	l->bytes = 0;
	l->content = 0;
}

static int copy_nodes(struct seen *s, const struct scan_observation *o, size_t *bytes)
{
	if (!o->n_nodes)
		return 0;
	s->nodes = calloc(o->n_nodes, sizeof(*s->nodes));
	if (!s->nodes)
		return -ENOMEM;
	for (size_t i = 0; i < o->n_nodes; i++) {
		struct chunk_tree_node *copy = &s->nodes[s->n_nodes];

		*copy = o->nodes[i];
		copy->payload = malloc(copy->n ? copy->n : 1);
		if (!copy->payload)
			return -ENOMEM;
		memcpy(copy->payload, o->nodes[i].payload, copy->n);
		s->n_nodes++;
		*bytes += copy->n;
	}
	return 0;
}

static int seen_list_add(struct seen_list *l, const struct scan_observation *o)
{
	struct seen s = {.what = o->what, .seq = o->seq, .had_row = o->had_row, .covers = o->covers, .stamp = o->stamp, .looked_ns = o->looked_ns};
	int r = array_reserve(&l->v, &l->cap, l->n + 1, sizeof(*l->v));

	if (!r && !(s.path = strdup(o->path)))
		r = -ENOMEM;
	if (!r)
		r = record_copy(&s.state, &o->state);
	if (!r)
		r = copy_nodes(&s, o, &l->bytes);
	if (r) {
		seen_deinit(&s);
		return r;
	}
	l->v[l->n++] = s;
	l->content += s.state.content.size;
	return 0;
}

static bool seen_list_full(const struct seen_list *l)
{
	return l->n >= OBSERVE_BATCH || l->bytes >= BATCH_BYTES_MAX || l->content >= BATCH_CONTENT_MAX;
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

static int gone_list_add(struct gone_list *l, const struct scan_observation *o)
{
	struct gone g = {.path = l->text.len, .seq = o->seq, .had_row = o->had_row};
	int r = array_reserve(&l->v, &l->cap, l->n + 1, sizeof(*l->v));

	put_bytes(&l->text, o->path, strlen(o->path) + 1);
	if (!r)
		r = buf_error(&l->text);
	if (r)
		return r;
	l->v[l->n++] = g;
	return 0;
}

static const char *gone_path(const struct gone_list *l, size_t i)
{
	return (const char *)l->text.data + l->v[i].path;
}

/* Last path first: what is below a directory before it. */
static int compare_gone(const void *x, const void *y, void *data)
{
	const struct gone_list *l = data;
	const uint8_t *a = l->text.data + ((const struct gone *)x)->path, *b = l->text.data + ((const struct gone *)y)->path;

	while (*a && *a == *b) {
		a++;
		b++;
	}
	if (!*a || !*b)
		return !*a - !*b;
	return (*b == '/' ? 0 : *b) - (*a == '/' ? 0 : *a);
}

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

static void paths_deinit(struct paths *p)
{
	for (size_t i = 0; i < p->n; i++)
		free(p->v[i]);
	free(p->v);
	*p = (struct paths){0};
}

static void run_deinit(struct run *x)
{
	struct met *m, *next;

	HASH_ITER(hh, x->met, m, next) {
		HASH_DEL(x->met, m);
		free(m);
	}
	seen_list_clear(&x->writing.list);
	seen_list_clear(&x->batch);
	seen_list_clear(&x->late);
	free(x->writing.list.v);
	free(x->batch.v);
	free(x->late.v);
	free(x->gone.v);
	buf_deinit(&x->gone.text);
	free(x->appeared.v);
	free(x->appeared.used);
	paths_deinit(&x->aside);
	paths_deinit(&x->emptied);
}

static void tell(const struct run *x, const char *path, enum scan_what what, int error)
{
	if (x->options->tell)
		x->options->tell(path, what, error, x->options->tell_data);
}

/* --- content that reappears --- */

static uint64_t content_name(const struct record *r)
{
	return hash_fast(r->content.root.bytes, HASH_BYTES, r->content.size ^ (uint64_t)r->kind << 56);
}

static int note_appeared(struct appeared *a, const struct scan_observation *o)
{
	int r;

	if (o->what != SCAN_NEW && o->what != SCAN_CHANGED)
		return 0;
	if (o->state.kind == RECORD_DIRECTORY) {
		a->directories++;
		return 0;
	}
	r = array_reserve(&a->v, &a->cap, a->n + 1, sizeof(*a->v));
	if (!r)
		a->v[a->n++] = content_name(&o->state);
	return r;
}

static int sort_appeared(struct appeared *a)
{
	if (!a->n)
		return 0;
	qsort(a->v, a->n, sizeof(*a->v), array_compare_u64);
	a->used = calloc(a->n, sizeof(*a->used));
	return a->used ? 0 : -ENOMEM;
}

/* Each appearance makes up for one deletion. used[first of a name] … are taken from the front, so that a search by halves
 * over "name less, or used" finds the next free one. */
static bool makes_up(struct appeared *a, const struct record *r)
{
	size_t low = 0, high = a->n;
	uint64_t name;

	if (r->kind == RECORD_DIRECTORY) {
		if (!a->directories)
			return false;
		a->directories--;
		return true;
	}
	name = content_name(r);
	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (a->v[middle] < name || (a->v[middle] == name && a->used[middle]))
			low = middle + 1;
		else
			high = middle;
	}
	if (low == a->n || a->v[low] != name)
		return false;
	a->used[low] = true;
	return true;
}

/* --- one observation in a transaction --- */

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
static int leave(struct run *x, struct seen *s, int error)
{
	s->told = true;
	s->error = error;
	x->stuck = true;
	return 0;
}

/* Is something in this look left as the index has it, so that it looks as if it raced, and will the next time? */
static bool leaves_any(const struct run *x)
{
	return x->stuck || x->result->scan.errors;
}

/* Record an event for what is on disk. `made` is taken over. row: what the index has of the path, NULL if nothing. */
static int put_event(struct run *x, struct replica_txn *t, struct seen *s, const char *path, enum replica_event_kind kind,
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

/* With the last live child, implied directories above go, if they are empty. */
static int drop_implied(struct replica_txn *t, struct store *store, const char *path)
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
	return r == 0 ? drop_implied(t, store, s->path) : r;
}

/* --- taking back --- */

/*
 * A version that descends from an event of ours may not be forgotten, as K goes on knowing that event: who has it would be told
 * that it was seen and deleted here. The user's change becomes one more event, and the session undoes them all.
 */
static enum observe_local local_of(const struct run *x, const struct row *row)
{
	const struct replica *r = x->options->replica;

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
static int note_emptied(struct run *x, const char *path, size_t n)
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
static int undo_found(struct run *x, struct replica_txn *t, struct seen *s, struct row *row, struct tally *tally)
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

static int undo_touched(struct run *x, struct replica_txn *t, struct seen *s, struct row *row, struct tally *tally)
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

static int take_touched(struct run *x, struct replica_txn *t, struct seen *s, struct row *row, struct tally *tally)
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

static int take_changed(struct run *x, struct replica_txn *t, struct seen *s, struct row *row, struct tally *tally)
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
static int take_aside(struct run *x, struct replica_txn *t, struct seen *s, const struct row *row, struct tally *tally)
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

/* Does the index say that anything live strictly below the path is on disk? 1 yes, 0 no. */
static int any_on_disk_below(struct index_txn *t, const char *path)
{
	struct index_cursor *c cleanup(index_cursor_close_p) = NULL;
	bool cut = strlen(path) + 1 >= PATH_KEY_PREFIX; /* the order of such long names is not that of paths */
	int r = index_any_live_below(t, path);

	if (r <= 0)
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
			if (row_live(&row) && row.place == ROW_ON_DISK)
				return 1;
		} else if (strcmp(at, path) != 0 && (!cut || strncmp(at, path, PATH_KEY_PREFIX - 1) != 0)) {
			break;
		}
	}
	return r < 0 ? r : 0;
}

static int take_new(struct run *x, struct replica_txn *t, struct seen *s, struct row *row, struct tally *tally)
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
static int take_unignored(struct run *x, struct replica_txn *t, struct seen *s, const struct row *row, struct tally *tally)
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

static bool is_below_aside(const struct run *x, const char *path)
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

/* Is something on the way to it, by its row, no directory? Then that is to be looked at first. 1 yes, 0 no. */
static int way_is_closed(struct index_txn *t, const char *path)
{
	cleanup_free char *at = strdup(path);
	int r = at ? 0 : -ENOMEM;

	while (r >= 0 && *at) {
		struct row row cleanup(row_deinit) = {0};

		at[path_parent_length(at)] = '\0';
		r = *at ? index_get(t, at, &row) : 0;
		if (r == 0 && row_live(&row) && row.place == ROW_ON_DISK && row.record.kind != RECORD_DIRECTORY)
			return 1;
	}
	return r < 0 ? r : 0;
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

static int take(struct run *x, struct replica_txn *t, struct seen *s, bool late, struct tally *tally)
{
	struct row row cleanup(row_deinit) = {0};
	int r = index_get(t->index, s->path, &row);
	bool directory, on_disk;

	if (r < 0)
		return r;
	if (replica_unfinished(x->options->replica, s->path))
		return leave(x, s, OBSERVE_UNFINISHED);
	if ((r == 0) != s->had_row || row.seq != s->seq || is_below_aside(x, s->path)) {
		tally->raced++;
		return 0;
	}
	r = lacks_nodes(t, s);
	if (!r && !x->whole && s->what == SCAN_NEW)
		r = way_is_closed(t->index, s->path);
	if (r) {
		tally->raced += r > 0;
		return r < 0 ? r : 0;
	}
	directory = was_directory(s, &row);
	if (directory && !late)
		return seen_list_take(&x->late, s);
	r = directory || s->covers ? any_on_disk_below(t->index, s->path) : 0;
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

/* --- batches --- */

static void add_tally(struct observe_result *result, const struct tally *t, uint64_t events)
{
	result->events += events;
	result->created += t->created;
	result->changed += t->changed;
	result->touched += t->touched;
	result->deleted += t->deleted;
	result->restamped += t->restamped;
	result->raced += t->raced;
	result->undone += t->undone;
	result->waiting += t->waiting;
}

/* End the batch's transaction: commit if all went well. */
static int end_batch(struct run *x, struct replica_txn *t, const struct tally *tally, int r)
{
	uint64_t events = t->events;

	if (r)
		replica_abort(t);
	else
		r = replica_commit(t);
	replica_unlock(x->options->replica);
	if (!r)
		add_tally(x->result, tally, events);
	return r > 0 ? -EIO : r;
}

static int begin_batch(struct run *x, struct replica_txn *t)
{
	int r;

	replica_lock(x->options->replica);
	r = replica_begin(x->options->replica, t);
	if (r)
		replica_unlock(x->options->replica);
	return r;
}

/* The nearest directory above that is there: what was made, renamed or removed in it. */
static void sync_above(int root, const char *path, struct sync_set *set)
{
	char at[FILE_PATH_BYTES_MAX + 1];
	int fd, r;

	snprintf(at, sizeof(at), "%s", path);
	do {
		at[path_parent_length(at)] = '\0';
		r = file_open_directory_at(root, at, &fd);
	} while (r == FILE_VANISHED && *at);
	if (r == 0)
		sync_set_add(set, fd);
	else
		set->many = true;
}

static void sync_seen(int root, const struct seen *s, struct sync_set *set)
{
	bool named = s->what == SCAN_NEW || s->what == SCAN_CHANGED;
	cleanup_close int dir = -1;
	const char *name;
	int fd, r;

	if (!named && s->what != SCAN_TOUCHED && s->what != SCAN_RESTAMP)
		return;
	if (s->state.kind == RECORD_DIRECTORY) {
		r = file_open_directory_at(root, s->path, &fd);
	} else {
		r = file_open_parent(root, s->path, &dir, &name);
		/* a symlink has no content, and attributes that it was given after it was made have no descriptor */
		if (r == 0 && s->state.kind == RECORD_SYMLINK)
			r = named && s->stamp.mtime_ns == s->stamp.ctime_ns ? FILE_VANISHED : FILE_UNSUPPORTED;
		if (r == 0)
			r = file_open_read(dir, name, &fd);
	}
	if (r == 0)
		sync_set_add(set, fd);
	else if (r != FILE_VANISHED)
		set->many = true;
	if (named || s->state.kind == RECORD_DIRECTORY) /* made anew, it is the same: what went with the old one is to stay gone */
		sync_above(root, s->path, set);
}

static int sync_seen_list(const struct run *x, const struct seen_list *l)
{
	cleanup(sync_set_drop) struct sync_set set = {0};
	int root = store_root(replica_store(x->options->replica));

	for (size_t i = 0; i < l->n && !set.many; i++)
		sync_seen(root, &l->v[i], &set);
	return sync_set_run(&set, root);
}

static int sync_gone(const struct run *x, size_t from, size_t to)
{
	cleanup(sync_set_drop) struct sync_set set = {0};
	int root = store_root(replica_store(x->options->replica));

	for (size_t i = from; i < to && !set.many; i++)
		sync_above(root, gone_path(&x->gone, i), &set);
	return sync_set_run(&set, root);
}

static int record(struct run *x, const struct seen_list *l, bool late)
{
	struct tally tally = {0};
	struct replica_txn t;
	int r = sync_seen_list(x, l);

	if (!r)
		r = begin_batch(x, &t);
	if (r)
		return r;
	for (size_t i = 0; i < l->n && !r; i++)
		r = take(x, &t, &l->v[i], late, &tally);
	return end_batch(x, &t, &tally, r);
}

/* The list was recorded: tell what is to be told of it, and empty it. */
static int recorded(struct run *x, struct seen_list *l, int r)
{
	for (size_t i = 0; i < l->n && !r; i++)
		if (l->v[i].told)
			tell(x, l->v[i].path, l->v[i].what, l->v[i].error);
	seen_list_clear(l);
	return r;
}

static int write_seen(struct run *x, struct seen_list *l, bool late)
{
	return l->n ? recorded(x, l, record(x, l, late)) : 0;
}

static void run_writing(struct pool_job *job)
{
	struct writing *w = (struct writing *)job;

	w->result = record(w->run, &w->list, false);
}

static int end_writing(struct run *x)
{
	struct writing *w = &x->writing;

	if (!w->busy)
		return 0;
	pool_wait(x->scan.pool, &w->job);
	w->busy = false;
	return recorded(x, &w->list, w->result);
}

/* Record the batch while the walk goes on; what is undone is undone while it stands still. */
static int write_batch(struct run *x)
{
	struct writing *w = &x->writing;
	struct seen_list empty;
	int r;

	if (!x->scan.pool || x->local)
		return write_seen(x, &x->batch, false);
	r = end_writing(x);
	if (r)
		return r;
	empty = w->list;
	w->list = x->batch;
	x->batch = empty;
	w->run = x;
	w->job.run = run_writing;
	w->busy = true;
	pool_add(x->scan.pool, &w->job, true);
	return 0;
}

/* Is it the first observation of this path? 1 yes, 0 no. */
static int meet(struct run *x, const char *path)
{
	struct met *m = NULL;

	if (!x->overlaps)
		return 1;
	HASH_FIND_STR(x->met, path, m);
	if (m)
		return 0;
	m = calloc(1, sizeof(*m) + strlen(path) + 1);
	if (!m)
		return -ENOMEM;
	strcpy(m->path, path);
	HASH_ADD_STR(x->met, path, m);
	if (!m->hh.tbl) {
		free(m);
		return -ENOMEM;
	}
	return 1;
}

static int on_observe(const struct scan_observation *o, void *data)
{
	struct run *x = data;
	int r = meet(x, o->path);

	if (r <= 0)
		return r;
	switch (o->what) {
	case SCAN_UNSETTLED:
		x->result->unsettled++;
		/* fall through */
	case SCAN_LEFT_OUT:
	case SCAN_ERROR:
		tell(x, o->path, o->what, o->error);
		return 0;
	case SCAN_GONE:
		return gone_list_add(&x->gone, o);
	default:
		break;
	}
	r = note_appeared(&x->appeared, o);
	if (!r)
		r = seen_list_add(&x->batch, o);
	if (!r && seen_list_full(&x->batch))
		r = write_batch(x);
	return r;
}

static void on_directory(int dirfd, const char *path, void *data)
{
	struct run *x = data;

	if (x->directory)
		x->directory(dirfd, path, x->directory_data);
}

/* --- the budget --- */

static size_t stretch_end(const struct run *x, size_t from)
{
	return from + OBSERVE_BATCH < x->gone.n ? from + OBSERVE_BATCH : x->gone.n;
}

bool observe_over_budget(uint64_t n, uint64_t live)
{
	uint64_t share = live / 100 * OBSERVE_BUDGET_PERCENT + live % 100 * OBSERVE_BUDGET_PERCENT / 100;

	return n > OBSERVE_BUDGET_MIN && n > share;
}

static bool is_deletion(const struct row *row, const struct gone *g)
{
	return row_live(row) && row->place == ROW_ON_DISK && row->seq == g->seq;
}

struct budget {
	uint64_t all;	  /* deletions */
	uint64_t counted; /* those whose content does not reappear */
	char top[FILE_NAME_BYTES_MAX + 1]; /* the subtree where the sorted list stands */
	uint64_t counted_top;
	bool over;
};

/* The list leaves a subtree. */
static int check_subtree(struct run *x, struct index_txn *t, struct budget *b)
{
	uint64_t live;
	int r;

	if (b->over || b->counted_top <= OBSERVE_BUDGET_MIN)
		return 0;
	r = index_count_live(t, b->top, &live);
	if (r)
		return r;
	if (observe_over_budget(b->counted_top, live)) {
		b->over = true;
		memcpy(x->result->held_at, b->top, strlen(b->top) + 1);
	}
	return 0;
}

static int count_gone(struct run *x, struct index_txn *t, size_t i, struct budget *b)
{
	struct row row cleanup(row_deinit) = {0};
	const char *path = gone_path(&x->gone, i);
	size_t top = strcspn(path, "/");
	int r;

	if (top > FILE_NAME_BYTES_MAX)
		return -EINVAL;
	if (strlen(b->top) != top || memcmp(b->top, path, top) != 0) {
		r = check_subtree(x, t, b);
		if (r)
			return r;
		memcpy(b->top, path, top);
		b->top[top] = '\0';
		b->counted_top = 0;
	}
	r = index_get(t, path, &row);
	if (r < 0)
		return r;
	if (!is_deletion(&row, &x->gone.v[i]))
		return 0;
	b->all++;
	if (!makes_up(&x->appeared, &row.record)) {
		b->counted++;
		b->counted_top++;
	}
	return 0;
}

/* A stretch of the list in one read transaction; the last one looks at the whole. Under the writer lock: what a batch that is
 * just applied has removed, and not recorded yet, would be taken for a user's deletion. */
static int count_stretch(struct run *x, size_t from, size_t to, struct budget *b)
{
	struct index_txn *t cleanup(index_abort_p) = NULL;
	struct index_counts counts;
	int r = index_begin_read(replica_index(x->options->replica), &t);

	for (size_t i = from; i < to && !r; i++)
		r = count_gone(x, t, i, b);
	if (r || to < x->gone.n)
		return r;
	r = check_subtree(x, t, b);
	if (!r)
		r = index_counts(t, &counts);
	if (!r && observe_over_budget(b->counted + x->options->recent, counts.live)) {
		b->over = true;
		x->result->held_at[0] = '\0';
	}
	return r;
}

/* Must the deletions be confirmed? Then the result says how many, and where. */
static int check_budget(struct run *x, bool *ret_held)
{
	struct budget b = {0};
	int r = sort_appeared(&x->appeared);

	for (size_t i = 0; i < x->gone.n && !r; i += OBSERVE_BATCH) {
		replica_lock(x->options->replica);
		r = count_stretch(x, i, stretch_end(x, i), &b);
		replica_unlock(x->options->replica);
	}
	if (r)
		return r;
	if (b.over)
		x->result->held = b.all;
	else
		x->result->counted = b.counted;
	*ret_held = b.over;
	return 0;
}

/* --- deletions --- */

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
static int undo_gone(struct run *x, struct replica_txn *t, const char *path, struct row *row, struct tally *tally)
{
	int dir cleanup_close = -1;
	struct file_stat st;
	const char *name;
	int r = file_open_parent(store_root(replica_store(x->options->replica)), path, &dir, &name);

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

static int leave_gone(struct run *x, struct gone *g, int why)
{
	x->stuck = true;
	g->left = why;
	return 0;
}

static int take_gone(struct run *x, struct replica_txn *t, const char *path, struct gone *g, struct tally *tally)
{
	struct row row cleanup(row_deinit) = {0};
	int r = index_get(t->index, path, &row);

	if (r < 0)
		return r;
	if (replica_unfinished(x->options->replica, path))
		return leave_gone(x, g, OBSERVE_UNFINISHED);
	if (r == INDEX_ABSENT || row.seq != g->seq || (row.place != ROW_IMPLIED && !is_deletion(&row, g)) ||
		is_below_aside(x, path)) {
		tally->raced++;
		return 0;
	}
	r = any_on_disk_below(t->index, path);
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

static int write_gone_batch(struct run *x, size_t from, size_t to)
{
	struct tally tally = {0};
	struct replica_txn t;
	int r = sync_gone(x, from, to);

	if (!r)
		r = begin_batch(x, &t);
	if (r)
		return r;
	for (size_t i = from; i < to && !r; i++)
		r = take_gone(x, &t, gone_path(&x->gone, i), &x->gone.v[i], &tally);
	for (size_t i = from; i < to && !r; i++)
		r = drop_implied(&t, replica_store(x->options->replica), gone_path(&x->gone, i));
	r = end_batch(x, &t, &tally, r);
	for (size_t i = from; i < to && !r; i++) {
		if (x->gone.v[i].left)
			tell(x, gone_path(&x->gone, i), SCAN_GONE, x->gone.v[i].left);
	}
	return r;
}

static int compare_paths_descending(const void *a, const void *b)
{
	return strcmp(*(char *const *)b, *(char *const *)a);
}

/* Is the directory the index's? 1 yes, 0 no. */
static int has_directory(struct replica *r, const char *path)
{
	struct index_txn *t cleanup(index_abort_p) = NULL;
	struct row row cleanup(row_deinit) = {0};
	int e = index_begin_read(replica_index(r), &t);

	if (!e)
		e = index_get(t, path, &row);
	return e < 0 ? e : row_live(&row) || row.place == ROW_IMPLIED;
}

/* Directories that a user made, deepest first, and those above that are empty then. */
static int remove_emptied(struct run *x)
{
	struct paths *p = &x->emptied;
	int r = 0;

	if (p->n)
		qsort(p->v, p->n, sizeof(*p->v), compare_paths_descending);
	replica_lock(x->options->replica); /* no batch makes directories meanwhile */
	for (size_t i = 0; i < p->n && r >= 0; i++) {
		for (char *at = p->v[i]; *at; at[path_parent_length(at)] = '\0') {
			r = has_directory(x->options->replica, at);
			if (r == 0)
				r = undo_directory(replica_store(x->options->replica), at);
			if (r)
				break;
			x->result->undone++;
		}
		if (r == FILE_NOT_EMPTY && x->whole)
			tell(x, p->v[i], SCAN_NEW, r);
	}
	replica_unlock(x->options->replica);
	return r < 0 ? r : 0;
}

static void tell_gone(struct run *x)
{
	for (size_t i = 0; i < x->gone.n; i++)
		tell(x, gone_path(&x->gone, i), SCAN_GONE, OBSERVE_LOCAL);
}

/* After a complete walk: what is gone, then what stands where directories were. */
static int finish(struct run *x)
{
	bool held = false;
	int r = remove_emptied(x);

	if (r)
		return r;
	if (x->local == OBSERVE_LEAVE) {
		tell_gone(x);
		return write_seen(x, &x->late, true);
	}
	if (x->gone.n)
		qsort_r(x->gone.v, x->gone.n, sizeof(*x->gone.v), compare_gone, &x->gone);
	if (x->gone.n && !x->options->confirmed && !x->suspect)
		r = check_budget(x, &held);
	if (r || held)
		return r;
	for (size_t i = 0; i < x->gone.n && !r; i += OBSERVE_BATCH)
		r = write_gone_batch(x, i, stretch_end(x, i));
	return r ? r : write_seen(x, &x->late, true);
}

/* Everything was seen, and recorded: from now on the index is what is on disk. */
static int end_suspicion(struct run *x)
{
	struct tally nothing = {0};
	struct replica_txn t;
	int r;

	if (!x->suspect || x->stuck || !x->whole || x->result->scan.errors || x->result->raced || x->result->unsettled ||
		x->result->held)
		return 0;
	r = begin_batch(x, &t);
	if (r)
		return r;
	replica_set_suspect(x->options->replica, false);
	r = end_batch(x, &t, &nothing, 0);
	if (r)
		replica_set_suspect(x->options->replica, true);
	return r;
}

/* One path's counts, added up. */
static void add_counts(struct scan_counts *sum, const struct scan_counts *c)
{
	sum->directories += c->directories;
	sum->files += c->files;
	sum->symlinks += c->symlinks;
	sum->bytes_hashed += c->bytes_hashed;
	sum->left_out += c->left_out;
	sum->errors += c->errors;
	sum->unsettled += c->unsettled;
	sum->hard_links += c->hard_links;
}

/* Has this replica the word of another one, so that what differs is known to be a user's doing? 1 yes, 0 no. */
static int has_met(struct replica *r)
{
	const struct version_lineage *l = replica_lineage(r);
	struct index_txn *t cleanup(index_abort_p) = NULL;
	struct knowledge k = {0};
	bool met = false;
	int e = index_begin_read(replica_index(r), &t);

	if (!e)
		e = replica_knowledge_read(t, &k);
	for (size_t i = 0; i < k.k.n && !e && !met; i++) {
		const struct version_incarnation *inc = version_lineage_find(l, k.k.v[i].inc);

		met = inc && inc->replica != store_replica_id(replica_store(r));
	}
	knowledge_deinit(&k);
	return e < 0 ? e : met;
}

int observe_run(const struct observe_options *options, const struct scan_options *scan, const struct observe_path *paths,
	size_t n, void (*directory)(int dirfd, const char *path, void *data), void *directory_data, struct observe_result *ret)
{
	struct observe_result result = {0};
	struct run x cleanup(run_deinit) = {.options = options,
					    .scan = *scan,
					    .overlaps = n > 1,
					    .directory = directory,
					    .directory_data = directory_data,
					    .result = &result,
					    .suspect = replica_suspect(options->replica)};
	struct scan_sink sink = {.observe = on_observe, .directory = on_directory, .data = &x};
	int r = 0, ended;

	assert(scan->store == replica_store(options->replica));
	if (options->local && !x.suspect) {
		r = has_met(options->replica);
		x.local = r > 0 ? options->local : OBSERVE_RECORD;
		r = r < 0 ? r : 0;
	}
	for (size_t i = 0; i < n && !r; i++) {
		struct scan_counts counts = {0};

		x.scan.subtree = paths[i].path;
		x.scan.shallow = paths[i].shallow;
		x.scan.rehash_before_ns = paths[i].rehash_before_ns;
		x.whole = x.whole || (!*paths[i].path && !paths[i].shallow);
		r = scan_run(&x.scan, &sink, &counts);
		add_counts(&result.scan, &counts);
	}
	ended = end_writing(&x);
	r = r ? r : ended;
	if (!r)
		r = write_seen(&x, &x.batch, false);
	if (!r)
		r = finish(&x);
	if (!r)
		r = end_suspicion(&x);
	*ret = result;
	return r;
}
