/*
 * merkle/scan_tell.c — what a walk tells of names and rows, and in which order. See merkle/scan_internal.h.
 *
 *   waiting  a ring of what was met and is not told yet: files that are being read by the pool, and
 *          whatever came after them, so that the order is kept. Empty without a pool
 */
#include "merkle/scan_internal.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/defect.h"

#define HEAVY_BYTES (64 * 1024) /* a file worth waking a thread for */

bool walk_fatal(int r)
{
	return r == -ENOMEM || r == -EMFILE || r == -ENFILE || r == -ECANCELED;
}

/* --- telling --- */

static int tell_now(struct walk *w, const struct scan_observation *o)
{
	switch (o->what) {
	case SCAN_LEFT_OUT:
		w->counts.left_out++;
		break;
	case SCAN_ERROR:
		w->counts.errors++;
		break;
	case SCAN_UNSETTLED:
		w->counts.unsettled++;
		break;
	default:
		break;
	}
	return w->sink->observe(o, w->sink->data);
}

/* A place at the end of the ring, zeroed but for the path. */
static int wait_in_line(struct walk *w, const char *path, struct waiting **ret)
{
	struct waiting *x;
	int r = w->n == SCAN_AHEAD ? walk_tell_first(w) : 0;

	if (r)
		return r;
	x = &w->waiting[(w->first + w->n) % SCAN_AHEAD];
	*x = (struct waiting){.walk = w, .path = strdup(path)};
	if (!x->path)
		return -ENOMEM;
	w->n++;
	*ret = x;
	return 0;
}

int walk_tell(struct walk *w, const struct scan_observation *o)
{
	struct waiting *x;
	int r;

	if (!w->n)
		return tell_now(w, o);
	assert(!o->nodes);
	r = wait_in_line(w, o->path, &x);
	if (r)
		return r;
	x->told = *o;
	x->told.path = x->path;
	x->told.state = (struct record){0};
	return record_copy(&x->told.state, &o->state);
}

int walk_tell_plain(
	struct walk *w, enum scan_what what, const char *path, const struct row_brief *row, int error)
{
	struct scan_observation o = {
		.what = what,
		.path = path,
		.seq = row ? row->seq : 0,
		.had_row = row != NULL,
		.error = error,
	};

	return walk_fatal(error) ? error : walk_tell(w, &o);
}

int walk_tell_not_entered(struct walk *w, const char *path, const struct row_brief *row, int r)
{
	if (r == FILE_VANISHED)
		return walk_tell_plain(w, SCAN_UNSETTLED, path, row, 0);
	return walk_tell_plain(w, r == FILE_OUTSIDE ? SCAN_LEFT_OUT : SCAN_ERROR, path, row, r);
}

/* The row of what the index believes to be on disk here with a record, else NULL. */
static const struct row_brief *row_on_disk(const struct entry *e)
{
	const struct row_brief *row = e->row;

	return row && row->place == ROW_ON_DISK && row->live ? row : NULL;
}

static unsigned differences(const struct stamp *now, const struct stamp *then, uint8_t kind)
{
	unsigned flags = 0;

	if (now->mode != then->mode && kind != RECORD_SYMLINK)
		flags |= SCAN_MODE;
	if (now->uid != then->uid || now->gid != then->gid)
		flags |= SCAN_OWNER;
	if (now->mtime_ns != then->mtime_ns && kind != RECORD_DIRECTORY)
		flags |= SCAN_MTIME;
	return flags;
}

/* Does it stand where a directory was, perhaps? Then what the index has below is gone. */
static bool may_replace_directory(const struct entry *e)
{
	return e->known && !(row_on_disk(e) && e->row->kind != RECORD_DIRECTORY);
}

/* NEW, CHANGED, TOUCHED, RESTAMP, AGED. */
static int tell_state(struct walk *w, struct entry *e, enum scan_what what)
{
	const struct row_brief *row = e->row;
	struct scan_observation o = {
		.what = what,
		.path = e->path,
		.seq = row ? row->seq : 0,
		.had_row = row != NULL,
		.covers = e->object.st.kind != FILE_KIND_DIRECTORY && may_replace_directory(e),
		.looked_ns = e->looked_ns,
		.nodes = e->object.nodes,
		.n_nodes = e->object.n_nodes,
	};
	int r;

	scan_object_stamp(&e->object, &o.stamp);
	if (row_on_disk(e))
		o.flags = differences(&o.stamp, &row->stamp, scan_kind(&e->object.st));
	scan_object_state(&e->object, &o.state);
	r = walk_tell(w, &o);
	record_deinit(&o.state);
	return r;
}

/* --- rows whose objects are not here, or not ours any more --- */

bool walk_busy(const struct walk *w, const char *path)
{
	return w->o->busy && w->o->busy(path, w->o->busy_data);
}

static bool may_be_directory(const struct row_brief *row)
{
	return !row->live || row->kind == RECORD_DIRECTORY;
}

static int add_gone(struct walk *w, const char *path, const struct row_brief *row)
{
	put_u64(&w->gone, row->seq);
	put_u8(&w->gone, may_be_directory(row));
	put_bytes(&w->gone, path, strlen(path) + 1);
	return buf_error(&w->gone);
}

static int row_ignored(struct walk *w, const char *path, const struct row_brief *row)
{
	if (!row->live || row->place == ROW_IGNORED || walk_busy(w, path))
		return 0;
	return walk_tell_plain(w, SCAN_IGNORED, path, row, 0);
}

static int row_ignored_below(const char *path, const struct row_brief *row, void *data)
{
	return row_ignored(data, path, row);
}

/* A row that was not to be, or could not be, on this disk: may it be now? */
static bool may_be_held(const struct walk *w, const struct row_brief *row)
{
	return row->place == ROW_IGNORED || (row->place == ROW_UNSUPPORTED && row->kind == RECORD_SYMLINK &&
					     store_abilities(w->o->store)->symlink);
}

/* Nothing is on disk at the row's path. above_too: ignored directories may lie between it and what
 * was looked at. */
static int row_absent(struct walk *w, const char *path, const struct row_brief *row, bool above_too)
{
	const struct ignore *rules = w->o->ignore;

	if (walk_busy(w, path))
		return 0;
	if (rules &&
		(above_too ? ignore_match : ignore_match_name)(rules, path, may_be_directory(row)))
		return row_ignored(w, path, row);
	if (row->place == ROW_ON_DISK || row->place == ROW_IMPLIED)
		return add_gone(w, path, row);
	if (row->live && may_be_held(w, row))
		return walk_tell_plain(w, SCAN_UNIGNORED, path, row, 0);
	return 0;
}

static int row_absent_below(const char *path, const struct row_brief *row, void *data)
{
	return row_absent(data, path, row, true);
}

static int all_below(struct walk *w, scan_row_emit *emit)
{
	return scan_rows_below(w->index, &w->zone, w->path, emit, w);
}

int walk_absent(struct walk *w, const struct entry *e)
{
	const struct row_brief *row = e->row;
	int r = 0;

	if (!e->known || e->unproven)
		return 0;
	if (row)
		r = row_absent(w, w->path, row, false);
	return r ? r : all_below(w, row_absent_below);
}

int walk_ignored(struct walk *w, const struct entry *e)
{
	const struct row_brief *row = e->row;
	int r = 0;

	if (e->object.st.kind == FILE_KIND_DIRECTORY) /* the rules in it do not count any more */
		ignore_forget(w->o->ignore, w->path);
	if (!e->known)
		return 0;
	if (row)
		r = row_ignored(w, w->path, row);
	return r ? r : all_below(w, row_ignored_below);
}

/* --- files and symlinks --- */

/* Tell how the object differs from what the index believes to be here, if at all. same: in kind and
 * content. */
static int judge(struct walk *w, struct entry *e, bool same)
{
	const struct row_brief *row = row_on_disk(e);
	struct stamp now;

	if (!row)
		return tell_state(w, e, SCAN_NEW);
	if (!same)
		return tell_state(w, e, SCAN_CHANGED);
	stamp_of(&e->object.st, &now);
	if (differences(&now, &row->stamp, row->kind))
		return tell_state(w, e, SCAN_TOUCHED);
	if (stamp_equal(&now, &row->stamp) && !scan_racy(w->o->store, &row->stamp, row->recorded_ns, w->window_ns))
		return 0;
	return tell_state(w, e, SCAN_RESTAMP);
}

int walk_judge_directory(struct walk *w, struct entry *e)
{
	const struct row_brief *row = e->row;
	struct stamp now;

	stamp_of(&e->object.st, &now);
	if (row && row->place == ROW_IMPLIED && !row->live) { /* a user's hand: no event, but apply must know */
		if (!e->empty && now.ino == row->stamp.ino && !differences(&now, &row->stamp, RECORD_DIRECTORY))
			return 0;
		return tell_state(w, e, SCAN_RESTAMP);
	}
	row = row_on_disk(e);
	if (!row)
		return tell_state(w, e, SCAN_NEW);
	if (row->kind != RECORD_DIRECTORY)
		return tell_state(w, e, SCAN_CHANGED);
	if (differences(&now, &row->stamp, RECORD_DIRECTORY))
		return tell_state(w, e, SCAN_TOUCHED);
	return now.ino == row->stamp.ino ? 0 : tell_state(w, e, SCAN_RESTAMP);
}

/* A time to come is one of a clock that was set back since. */
static bool recorded_since(const struct row_brief *row, int64_t ns)
{
	return row->recorded_ns >= ns && (!ns || row->recorded_ns <= clock_wall_ns());
}

bool walk_clean(const struct walk *w, const struct entry *e)
{
	const struct row_brief *row = row_on_disk(e);
	struct stamp now;

	if (!row || row->kind != scan_kind(&e->object.st) || row->kind == RECORD_DIRECTORY)
		return false;
	stamp_of(&e->object.st, &now);
	if (DEFECT(MTIME_TRUSTED) && now.size == row->stamp.size && now.mtime_ns == row->stamp.mtime_ns)
		return true;
	return recorded_since(row, w->o->rehash_before_ns) && !scan_racy(w->o->store, &row->stamp, row->recorded_ns, w->window_ns) &&
	       stamp_equal(&now, &row->stamp);
}

/* The parameter that our record's content was cut with, so that equal bytes compare equal. */
static uint8_t bits_for(const struct entry *e)
{
	const struct row_brief *row = row_on_disk(e);

	if (row && row->kind == RECORD_FILE &&
		row->content.size == e->object.st.size &&
		row->content.chunk_bits >= CHUNK_BITS_MIN &&
		row->content.chunk_bits <= CHUNK_BITS_MAX)
		return row->content.chunk_bits;
	return chunk_bits_for_size(e->object.st.size);
}

static bool same_content(const struct entry *e)
{
	const struct row_brief *row = row_on_disk(e);

	if (!row || row->kind != scan_kind(&e->object.st) ||
		!content_equal(&row->content, &e->object.content))
		return false;
	return !e->object.target ||
	       (row->target && !strcmp(row->target, e->object.target));
}

/* On any thread. */
static int read_entry(const struct walk *w, struct entry *e)
{
	struct scan_object *o = &e->object;
	bool file = o->st.kind == FILE_KIND_REGULAR;
	int r;

	if (file && !row_on_disk(e) && !w->o->rehash_before_ns && o->st.size && !w->nothing_known) {
		r = scan_object_recognise(o, w->o->store, w->window_ns, e->dir, e->name);
		if (r)
			return r < 0 ? r : 0;
	}
	o->pace = w->o->pace;
	r = scan_object_read(o, w->o->store, e->dir, e->name, bits_for(e));
	e->read = r == 0 && file;
	return r;
}

/* It was read, with that result. */
static int leaf_read(struct walk *w, struct entry *e, int r)
{
	if (e->read)
		w->counts.bytes_hashed += e->object.st.size;
	if (r == FILE_BUSY)
		return walk_tell_plain(w, SCAN_UNSETTLED, e->path, e->row, 0);
	if (r)
		return walk_tell_plain(w, SCAN_ERROR, e->path, e->row, r);
	return judge(w, e, same_content(e));
}

/* --- files and symlinks that are read while the walk goes on --- */

bool walk_cancelled(const struct walk *w)
{
	return w->o->cancel && atomic_load_explicit(w->o->cancel, memory_order_relaxed);
}

static bool reading_ended(void *data)
{
	struct walk *w = data;

	return walk_cancelled(w) || atomic_load_explicit(&w->ended, memory_order_relaxed);
}

void directory_leave(struct directory *d)
{
	if (--d->users)
		return;
	close_keep(d->fd);
	free(d);
}

static void read_waiting(struct pool_job *job)
{
	struct waiting *x = (struct waiting *)job;

	x->result = read_entry(x->walk, &x->entry);
}

static int read_later(struct walk *w, struct entry *e, struct directory *in, struct scan_known *known)
{
	uint64_t bytes = e->object.st.size;
	struct waiting *x;
	int r = 0;

	while (w->n && w->waiting_bytes + bytes > SCAN_AHEAD_BYTES && !r)
		r = walk_tell_first(w);
	if (!r)
		r = wait_in_line(w, e->path, &x);
	if (r)
		return r;
	x->entry = *e;
	x->entry.path = x->path;
	x->entry.name = x->path + (e->name - w->path);
	if (e->row) { /* the window's is about to go */
		x->row = known->row;
		known->row = (struct row_brief){0};
		x->entry.row = &x->row;
	}
	x->entry.object.pool = w->o->pool;
	x->entry.object.cancelled = reading_ended;
	x->entry.object.data = w;
	x->directory = in;
	in->users++;
	w->waiting_bytes += bytes;
	x->job.run = read_waiting;
	pool_add(w->o->pool, &x->job, bytes >= HEAVY_BYTES);
	return 0;
}

static void waiting_deinit(struct waiting *x)
{
	if (x->directory) {
		x->walk->waiting_bytes -= x->entry.object.st.size;
		directory_leave(x->directory);
	}
	scan_object_deinit(&x->entry.object);
	row_brief_deinit(&x->row);
	record_deinit(&x->told.state);
	free(x->path);
}

int walk_tell_first(struct walk *w)
{
	struct waiting *x = &w->waiting[w->first];
	size_t all = w->n;
	int r;

	if (x->directory)
		pool_wait(w->o->pool, &x->job);
	w->n = 0; /* nothing is before it: it is told now */
	r = x->directory ? leaf_read(w, &x->entry, x->result) : tell_now(w, &x->told);
	w->n = all - 1;
	w->first = (w->first + 1) % SCAN_AHEAD;
	waiting_deinit(x);
	return r;
}

void walk_drop_waiting(struct walk *w)
{
	atomic_store(&w->ended, true);
	for (; w->n; w->n--, w->first = (w->first + 1) % SCAN_AHEAD) {
		struct waiting *x = &w->waiting[w->first];

		if (x->directory)
			pool_cancel(w->o->pool, &x->job);
		waiting_deinit(x);
	}
}

/* A stamp proves something to other processes, and after a power loss as much as any, once it is older than its times. */
static int leaf_clean(struct walk *w, struct entry *e)
{
	const struct row_brief *row = e->row;

	if (!scan_young(&row->stamp, row->recorded_ns, w->window_ns) || scan_young(&row->stamp, e->looked_ns, w->window_ns))
		return 0;
	e->object.generation = row->stamp.generation;
	return tell_state(w, e, SCAN_AGED);
}

int walk_leaf(struct walk *w, struct entry *e, struct directory *in, struct scan_known *known)
{
	int r = 0;

	if (walk_clean(w, e))
		return leaf_clean(w, e);
	if (w->o->pool && !may_replace_directory(e))
		return read_later(w, e, in, known);
	while (w->n && !r)
		r = walk_tell_first(w);
	if (!r)
		r = leaf_read(w, e, read_entry(w, e));
	if (!r && may_replace_directory(e))
		r = all_below(w, row_absent_below);
	return r;
}
