/*
 * tombstones/observe.c — the run: batches, the budget, deletions in order; see tombstones/observe.h. What becomes of a single
 * observation: observe_take.c.
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
#include "tombstones/observe_internal.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#define HASH_NONFATAL_OOM 1 /* then the element has no table */
#include <uthash.h>

#include "base/error.h"
#include "merkle/durable.h"
#include "merkle/path.h"
#include "tombstones/undo.h"

#define BATCH_BYTES_MAX (16 * 1024 * 1024) /* of chunk-tree nodes held */
#define BATCH_CONTENT_MAX (UINT64_C(1) << 30) /* of what was read: all of it again, if the process ends before the commit */

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
	struct met *met; /* NULL when one path is looked at; owned */
	bool overlaps;	 /* keep met */
	void (*directory)(int dirfd, const char *path, void *data);
	void *directory_data;
	struct observe_result *result;

	struct writing writing;
	struct taking taking; /* while writing is busy, its thread's */
	struct seen_list batch;
	struct gone_list gone;
	struct appeared appeared;
};

DEFINE_CLEANUP(struct index_txn *, index_abort)

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
	seen_list_clear(&x->taking.late);
	free(x->writing.list.v);
	free(x->batch.v);
	free(x->taking.late.v);
	free(x->gone.v);
	buf_deinit(&x->gone.text);
	free(x->appeared.v);
	free(x->appeared.used);
	paths_deinit(&x->taking.aside);
	paths_deinit(&x->taking.emptied);
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

/* What is to be durable before a batch of observations is recorded. */
struct syncing {
	int root;
	struct index_txn *index;
	struct sync_set set;
};

static void sync_seen(struct syncing *y, const struct seen *s)
{
	bool named = s->what == SCAN_NEW || s->what == SCAN_CHANGED;
	cleanup_close int dir = -1;
	const char *name;
	int fd, r;

	if (!named && s->what != SCAN_TOUCHED && s->what != SCAN_RESTAMP)
		return;
	if (s->state.kind == RECORD_DIRECTORY) {
		r = file_open_directory_at(y->root, s->path, &fd);
	} else {
		r = file_open_parent(y->root, s->path, &dir, &name);
		/* a symlink has no content, and attributes that it was given after it was made have no descriptor */
		if (r == 0 && s->state.kind == RECORD_SYMLINK)
			r = named && s->stamp.mtime_ns == s->stamp.ctime_ns ? FILE_VANISHED : FILE_UNSUPPORTED;
		if (r == 0)
			r = file_open_read(dir, name, &fd);
	}
	if (r == 0)
		sync_set_add(&y->set, fd);
	else if (r != FILE_VANISHED)
		y->set.many = true;
	/* also where it is the same: it may have been made anew, and is to stay as what went with the old one is to stay gone */
	durable_add_above(y->index, y->root, s->path, &y->set);
}

static int sync_begin(const struct run *x, struct syncing *ret)
{
	*ret = (struct syncing){.root = store_root(replica_store(x->options->replica))};
	return index_begin_read(replica_index(x->options->replica), &ret->index);
}

static int sync_end(struct syncing *y)
{
	index_abort(y->index);
	return sync_set_run(&y->set, y->root);
}

static int sync_seen_list(const struct run *x, const struct seen_list *l)
{
	struct syncing y;
	int r = sync_begin(x, &y);

	for (size_t i = 0; r == 0 && i < l->n && !y.set.many; i++)
		sync_seen(&y, &l->v[i]);
	return r ? r : sync_end(&y);
}

static int sync_gone(const struct run *x, size_t from, size_t to)
{
	struct syncing y;
	int r = sync_begin(x, &y);

	for (size_t i = from; r == 0 && i < to && !y.set.many; i++)
		durable_add_above(y.index, y.root, gone_path(&x->gone, i), &y.set);
	return r ? r : sync_end(&y);
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
		r = observe_take(&x->taking, &t, &l->v[i], late, &tally);
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

	if (!x->scan.pool || x->taking.local)
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
	if (!observe_is_deletion(&row, &x->gone.v[i]))
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
	if (!r && b->counted && observe_over_budget(b->counted + x->options->recent, counts.live)) {
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
		r = observe_take_gone(&x->taking, &t, gone_path(&x->gone, i), &x->gone.v[i], &tally);
	for (size_t i = from; i < to && !r; i++)
		r = observe_drop_implied(&t, replica_store(x->options->replica), gone_path(&x->gone, i));
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
	struct paths *p = &x->taking.emptied;
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
		if (r == FILE_NOT_EMPTY && x->taking.whole)
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
	if (x->taking.local == OBSERVE_LEAVE) {
		tell_gone(x);
		return write_seen(x, &x->taking.late, true);
	}
	if (x->gone.n)
		qsort_r(x->gone.v, x->gone.n, sizeof(*x->gone.v), compare_gone, &x->gone);
	if (x->gone.n && !x->options->confirmed && !x->taking.suspect)
		r = check_budget(x, &held);
	if (r || held)
		return r;
	for (size_t i = 0; i < x->gone.n && !r; i += OBSERVE_BATCH)
		r = write_gone_batch(x, i, stretch_end(x, i));
	return r ? r : write_seen(x, &x->taking.late, true);
}

/* Everything was seen, and recorded: from now on the index is what is on disk. */
static int end_suspicion(struct run *x)
{
	struct tally nothing = {0};
	struct replica_txn t;
	int r;

	if (!x->taking.suspect || x->taking.stuck || !x->taking.whole || x->result->scan.errors || x->result->raced ||
		x->result->unsettled || x->result->held)
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
					    .taking = {.replica = options->replica,
						    .result = &result,
						    .suspect = replica_suspect(options->replica)}};
	struct scan_sink sink = {.observe = on_observe, .directory = on_directory, .data = &x};
	int r = 0, ended;

	assert(scan->store == replica_store(options->replica));
	if (options->local && !x.taking.suspect) {
		r = has_met(options->replica);
		x.taking.local = r > 0 ? options->local : OBSERVE_RECORD;
		r = r < 0 ? r : 0;
	}
	for (size_t i = 0; i < n && !r; i++) {
		struct scan_counts counts = {0};
		bool whole = !*paths[i].path && !paths[i].shallow;

		if (whole && !x.taking.whole)
			r = end_writing(&x); /* which reads it */
		if (r)
			break;
		x.taking.whole = x.taking.whole || whole;
		x.scan.subtree = paths[i].path;
		x.scan.shallow = paths[i].shallow;
		x.scan.rehash_before_ns = paths[i].rehash_before_ns;
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
