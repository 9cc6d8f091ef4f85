/*
 * merkle/scan.c — the walk: names on disk merged with rows of the index. See merkle/scan.h.
 *
 *   frame  one directory on the current path: its descriptor, its names in order, and a window on
 *          its rows in order
 *   entry  a name that is on disk, or in the index, or both; a name that only the index has is
 *          looked for all the same, since a listing may miss what is renamed while it is read
 *   waiting  a ring of what was met and is not told yet: files that are being read by the pool, and
 *          whatever came after them, so that the order is kept. Empty without a pool
 *
 * Invariants:
 *  - Nothing is gone unless a lookup of its name, or of a directory above it, in a held directory
 *    said so; the directory was listed to its end without an error; and it still stands at its path
 *    when it is left.
 *  - Nothing that is gone is told before the whole walk is over and the root is still the one that
 *    was opened.
 *  - What is left out, unsettled or in error says nothing about the rows at or below it.
 *  - A directory is watched, then its rules are read, then its names.
 */
#include "merkle/scan.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/defect.h"
#include "base/error.h"
#include "merkle/scan_internal.h"

#define HEAVY_BYTES (64 * 1024) /* a file worth waking a thread for */

struct names {
	struct buf text; /* NUL-terminated, one after the other */
	size_t *at;	 /* owned: offsets, sorted by name */
	size_t n, cap;
	bool folder; /* a PATH_STATE_NAME is among them */
};

/* A directory's descriptor: of its frame, and of the files in it that wait to be read. */
struct directory {
	int fd;
	unsigned users;
};

struct frame {
	struct directory *directory; /* one user */
	int fd;			     /* its descriptor */
	size_t path_n;	     /* of the walk's path */
	struct file_stat st; /* of the directory */
	struct names names;
	size_t at; /* next name */
	struct scan_window known;
	bool shallow;	    /* directories below that have rows are not entered */
	bool child_shallow; /* what the frame of a directory below is to be */
	bool unproven;	    /* names may be missing */
	size_t gone_n;	    /* length of the walk's list when the directory was entered */
};

/* One name in hand. */
struct entry {
	const char *path; /* the walk's, or what waits has its own */
	int dir;
	const char *name;
	const struct row *row; /* NULL: the index has none */
	bool known;	       /* the index knows something at or below it */
	struct scan_object object;
	int64_t looked_ns;
	bool unproven; /* its absence would be */
	bool read;     /* all its bytes were hashed */
};

/* What is to be told in its turn. */
struct waiting {
	struct pool_job job;
	struct walk *walk;
	char *path;		     /* owned */
	struct directory *directory; /* NULL: nothing is to be read, `told` is told */
	struct entry entry;
	struct row row; /* the entry's */
	int result;	/* of reading it */
	struct scan_observation told;
};

struct walk {
	const struct scan_options *o;
	const struct scan_sink *sink;
	struct index *index;
	int64_t window_ns; /* of racily clean stamps */
	struct scan_counts counts;
	struct frame *frames[FILE_DEPTH_MAX + 1]; /* owned; root first */
	size_t depth;
	char path[FILE_PATH_BYTES_MAX + 1 + FILE_NAME_BYTES_MAX + 1]; /* of the entry in hand */
	struct scan_zone zone;
	struct buf gone;   /* {u64 sequence, u8 may be a directory, path with its NUL} */
	bool nothing_gone; /* the root was not listed to its end */
	bool nothing_known; /* the index was empty: nothing can have been moved */
	struct waiting waiting[SCAN_AHEAD]; /* from first on, n of them */
	size_t first, n;
	uint64_t waiting_bytes; /* of files */
	atomic_bool ended;	/* nobody wants to know any more */
};

/* Not the file system's, but ours: the walk cannot go on. */
static bool fatal(int r)
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

static int tell_first(struct walk *w);

/* A place at the end of the ring, zeroed but for the path. */
static int wait_in_line(struct walk *w, const char *path, struct waiting **ret)
{
	struct waiting *x;
	int r = w->n == SCAN_AHEAD ? tell_first(w) : 0;

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

static int tell(struct walk *w, const struct scan_observation *o)
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

static int tell_plain(
	struct walk *w, enum scan_what what, const char *path, const struct row *row, int error)
{
	struct scan_observation o = {
		.what = what,
		.path = path,
		.seq = row ? row->seq : 0,
		.had_row = row != NULL,
		.error = error,
	};

	return fatal(error) ? error : tell(w, &o);
}

/* A look at the path, or into it, came to `r`. */
static int tell_not_entered(struct walk *w, const char *path, const struct row *row, int r)
{
	if (r == FILE_VANISHED)
		return tell_plain(w, SCAN_UNSETTLED, path, row, 0);
	return tell_plain(w, r == FILE_OUTSIDE ? SCAN_LEFT_OUT : SCAN_ERROR, path, row, r);
}

/* The row of what the index believes to be on disk here with a record, else NULL. */
static const struct row *row_on_disk(const struct entry *e)
{
	const struct row *row = e->row;

	return row && row->place == ROW_ON_DISK && row_live(row) ? row : NULL;
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

/* NEW, CHANGED, TOUCHED, RESTAMP. */
static int tell_state(struct walk *w, struct entry *e, enum scan_what what)
{
	const struct row *row = e->row;
	struct scan_observation o = {
		.what = what,
		.path = e->path,
		.seq = row ? row->seq : 0,
		.had_row = row != NULL,
		.looked_ns = e->looked_ns,
		.nodes = e->object.nodes,
		.n_nodes = e->object.n_nodes,
	};
	int r;

	stamp_of(&e->object.st, &o.stamp);
	o.stamp.generation = e->object.generation;
	if (row_on_disk(e))
		o.flags = differences(&o.stamp, &row->stamp, scan_kind(&e->object.st));
	scan_object_state(&e->object, &o.state);
	r = tell(w, &o);
	record_deinit(&o.state);
	return r;
}

/* --- rows whose objects are not here, or not ours any more --- */

static bool busy(const struct walk *w, const char *path)
{
	return w->o->busy && w->o->busy(path, w->o->busy_data);
}

static bool may_be_directory(const struct row *row)
{
	return !row_live(row) || row->record.kind == RECORD_DIRECTORY;
}

static int add_gone(struct walk *w, const char *path, const struct row *row)
{
	put_u64(&w->gone, row->seq);
	put_u8(&w->gone, may_be_directory(row));
	put_bytes(&w->gone, path, strlen(path) + 1);
	return buf_error(&w->gone);
}

static int row_ignored(struct walk *w, const char *path, const struct row *row)
{
	if (!row_live(row) || row->place == ROW_IGNORED || busy(w, path))
		return 0;
	return tell_plain(w, SCAN_IGNORED, path, row, 0);
}

static int row_ignored_below(const char *path, const struct row *row, void *data)
{
	return row_ignored(data, path, row);
}

/* Nothing is on disk at the row's path. above_too: ignored directories may lie between it and what
 * was looked at. */
static int row_absent(struct walk *w, const char *path, const struct row *row, bool above_too)
{
	const struct ignore *rules = w->o->ignore;

	if (busy(w, path))
		return 0;
	if (rules &&
		(above_too ? ignore_match : ignore_match_name)(rules, path, may_be_directory(row)))
		return row_ignored(w, path, row);
	if (row->place == ROW_ON_DISK || row->place == ROW_IMPLIED)
		return add_gone(w, path, row);
	if (row->place == ROW_IGNORED && row_live(row))
		return tell_plain(w, SCAN_UNIGNORED, path, row, 0);
	return 0;
}

static int row_absent_below(const char *path, const struct row *row, void *data)
{
	return row_absent(data, path, row, true);
}

static int all_below(struct walk *w, scan_row_emit *emit)
{
	return scan_rows_below(w->index, &w->zone, w->path, emit, w);
}

/* The name, and so all below it, is not there. */
static int absent(struct walk *w, const struct entry *e)
{
	const struct row *row = e->row;
	int r = 0;

	if (!e->known || e->unproven)
		return 0;
	if (row)
		r = row_absent(w, w->path, row, false);
	return r ? r : all_below(w, row_absent_below);
}

static int ignored(struct walk *w, const struct entry *e)
{
	const struct row *row = e->row;
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
	const struct row *row = row_on_disk(e);
	struct stamp now;

	if (!row)
		return tell_state(w, e, SCAN_NEW);
	if (!same)
		return tell_state(w, e, SCAN_CHANGED);
	stamp_of(&e->object.st, &now);
	if (differences(&now, &row->stamp, row->record.kind))
		return tell_state(w, e, SCAN_TOUCHED);
	if (stamp_equal(&now, &row->stamp) && !scan_racy(row, w->window_ns))
		return 0;
	return tell_state(w, e, SCAN_RESTAMP);
}

/* To read the object at all: it is not what it was, or may not be. */
static bool trusted(const struct walk *w, const struct entry *e, const struct stamp *now)
{
	const struct row *row = row_on_disk(e);

	if (DEFECT(MTIME_TRUSTED) && row && row->record.kind == scan_kind(&e->object.st) && now->size == row->stamp.size &&
			now->mtime_ns == row->stamp.mtime_ns)
		return true;
	return row && row->record.kind == scan_kind(&e->object.st) && !w->o->rehash &&
	       !scan_racy(row, w->window_ns) && stamp_equal(now, &row->stamp);
}

/* The parameter that our record's content was cut with, so that equal bytes compare equal. */
static uint8_t bits_for(const struct entry *e)
{
	const struct row *row = row_on_disk(e);

	if (row && row->record.kind == RECORD_FILE &&
		row->record.content.size == e->object.st.size &&
		row->record.content.chunk_bits >= CHUNK_BITS_MIN &&
		row->record.content.chunk_bits <= CHUNK_BITS_MAX)
		return row->record.content.chunk_bits;
	return chunk_bits_for_size(e->object.st.size);
}

static bool same_content(const struct entry *e)
{
	const struct row *row = row_on_disk(e);

	if (!row || row->record.kind != scan_kind(&e->object.st) ||
		!content_equal(&row->record.content, &e->object.content))
		return false;
	return !e->object.target ||
	       (row->record.target && !strcmp(row->record.target, e->object.target));
}

/* On any thread. */
static int read_entry(const struct walk *w, struct entry *e)
{
	struct scan_object *o = &e->object;
	bool file = o->st.kind == FILE_KIND_REGULAR;
	int r;

	if (file && !row_on_disk(e) && !w->o->rehash && o->st.size && !w->nothing_known) {
		r = scan_object_recognise(o, w->o->store, w->window_ns, e->dir, e->name);
		if (r)
			return r < 0 ? r : 0;
	}
	r = scan_object_read(o, store_algorithm(w->o->store), e->dir, e->name, bits_for(e));
	e->read = r == 0 && file;
	return r;
}

/* It was read, with that result. */
static int leaf_read(struct walk *w, struct entry *e, int r)
{
	if (e->read)
		w->counts.bytes_hashed += e->object.st.size;
	if (r == FILE_BUSY)
		return tell_plain(w, SCAN_UNSETTLED, e->path, e->row, 0);
	if (r)
		return tell_plain(w, SCAN_ERROR, e->path, e->row, r);
	return judge(w, e, same_content(e));
}

/* --- files and symlinks that are read while the walk goes on --- */

static bool cancelled(const struct walk *w)
{
	return w->o->cancel && atomic_load_explicit(w->o->cancel, memory_order_relaxed);
}

static bool reading_ended(void *data)
{
	struct walk *w = data;

	return cancelled(w) || atomic_load_explicit(&w->ended, memory_order_relaxed);
}

static void directory_leave(struct directory *d)
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

static int read_later(struct walk *w, struct entry *e, struct frame *in, struct scan_known *known)
{
	uint64_t bytes = e->object.st.size;
	struct waiting *x;
	int r = 0;

	while (w->n && w->waiting_bytes + bytes > SCAN_AHEAD_BYTES && !r)
		r = tell_first(w);
	if (!r)
		r = wait_in_line(w, e->path, &x);
	if (r)
		return r;
	x->entry = *e;
	x->entry.path = x->path;
	x->entry.name = x->path + (e->name - w->path);
	if (e->row) { /* the window's is about to go */
		x->row = known->row;
		known->row = (struct row){0};
		x->entry.row = &x->row;
	}
	x->entry.object.pool = w->o->pool;
	x->entry.object.cancelled = reading_ended;
	x->entry.object.data = w;
	x->directory = in->directory;
	in->directory->users++;
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
	row_deinit(&x->row);
	record_deinit(&x->told.state);
	free(x->path);
}

/* What came first is told, once it is read. */
static int tell_first(struct walk *w)
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

/* Nobody wants to know any more. */
static void drop_waiting(struct walk *w)
{
	atomic_store(&w->ended, true);
	for (; w->n; w->n--, w->first = (w->first + 1) % SCAN_AHEAD) {
		struct waiting *x = &w->waiting[w->first];

		if (x->directory)
			pool_cancel(w->o->pool, &x->job);
		waiting_deinit(x);
	}
}

/* Does it stand where a directory was, perhaps? Then what the index has below is gone. */
static bool may_replace_directory(const struct entry *e)
{
	return e->known && !(row_on_disk(e) && e->row->record.kind != RECORD_DIRECTORY);
}

static int leaf(struct walk *w, struct entry *e, struct frame *in, struct scan_known *known)
{
	struct stamp now;
	int r = 0;

	stamp_of(&e->object.st, &now);
	if (trusted(w, e, &now))
		return 0;
	if (w->o->pool && !may_replace_directory(e))
		return read_later(w, e, in, known);
	while (w->n && !r)
		r = tell_first(w);
	if (!r)
		r = leaf_read(w, e, read_entry(w, e));
	if (!r && may_replace_directory(e))
		r = all_below(w, row_absent_below);
	return r;
}

/* --- directories --- */

static int names_add(struct names *names, const char *name)
{
	int r = array_reserve(&names->at, &names->cap, names->n + 1, sizeof(*names->at));

	if (r)
		return r;
	names->at[names->n++] = names->text.len;
	put_bytes(&names->text, name, strlen(name) + 1);
	names->folder = names->folder || !strcmp(name, PATH_STATE_NAME);
	return buf_error(&names->text);
}

static void names_deinit(struct names *names)
{
	buf_deinit(&names->text);
	free(names->at);
}

static const char *name_at(const struct names *names, size_t k)
{
	return (const char *)names->text.data + names->at[k];
}

static int compare_names(const void *a, const void *b, void *text)
{
	return strcmp(
		(const char *)text + *(const size_t *)a, (const char *)text + *(const size_t *)b);
}

/* What was listed before an error is kept: it is there. */
static int names_read(struct names *names, int fd)
{
	cleanup_file_dir struct file_dir *d = NULL;
	const char *name;
	int r = file_dir_open(fd, &d);

	while (!r) {
		r = file_dir_next(d, &name);
		if (!r)
			r = names_add(names, name);
	}
	if (names->n)
		qsort_r(names->at, names->n, sizeof(*names->at), compare_names, names->text.data);
	return r == FILE_END ? 0 : r;
}

static void frame_free(struct frame *f)
{
	if (!f)
		return;
	directory_leave(f->directory);
	names_deinit(&f->names);
	scan_window_deinit(&f->known);
	free(f);
}

DEFINE_CLEANUP(struct frame *, frame_free)

/* Takes fd. */
static struct frame *frame_new(const struct walk *w, int fd, size_t path_n)
{
	struct frame *f = calloc(1, sizeof(*f));
	struct directory *d = malloc(sizeof(*d));

	if (!f || !d) {
		close_keep(fd);
		free(f);
		free(d);
		return NULL;
	}
	*d = (struct directory){.fd = fd, .users = 1};
	f->directory = d;
	f->fd = fd;
	f->path_n = path_n;
	f->gone_n = w->gone.len;
	return f;
}

static void push(struct walk *w, struct frame *f)
{
	assert(w->depth < ARRAY_SIZE(w->frames));
	w->frames[w->depth++] = f;
}

/* The directory is still what its path names; what is gone inside one that was moved away is not
 * gone. */
static bool still_there(const struct walk *w, const struct frame *f)
{
	cleanup_close int fd = -1;
	struct file_stat st;

	return file_open_directory_at(store_root(w->o->store), w->path, &fd) == 0 &&
	       file_stat_fd(fd, &st) == 0 && st.ino == f->st.ino && st.dev == f->st.dev;
}

static int pop(struct walk *w)
{
	cleanup(frame_free_p) struct frame *f = w->frames[--w->depth];

	w->path[f->path_n] = '\0';
	if (w->gone.len == f->gone_n || still_there(w, f))
		return 0;
	w->gone.len = f->gone_n;
	return tell_plain(w, SCAN_UNSETTLED, w->path, NULL, 0);
}

/* Is the directory another folder's root: does its .syncd have an identity? */
static bool has_folder(int dir)
{
	cleanup_close int fd = -1;
	struct file_stat st;
	int r = file_open_directory_at(dir, PATH_STATE_NAME, &fd);

	return r == FILE_DENIED || (r == 0 && file_stat_at(fd, "identity", &st) == 0);
}

/* Watch the directory, read its rules and names. IGNORE_CHANGED: and the rules are others than
 * before. An error of the listing is not returned: *ret_listing. */
static int frame_read(struct walk *w, struct frame *f, int *ret_listing)
{
	int changed = 0;

	if (w->sink->directory)
		w->sink->directory(f->fd, w->path, w->sink->data);
	if (w->o->ignore)
		changed = ignore_read(w->o->ignore, f->fd, w->path);
	if (changed < 0)
		return changed;
	*ret_listing = names_read(&f->names, f->fd);
	if (DEFECT(UNREADABLE_IS_EMPTY))
		*ret_listing = 0;
	f->unproven = *ret_listing != 0;
	return fatal(*ret_listing) ? *ret_listing : changed;
}

static int judge_directory(struct walk *w, struct entry *e)
{
	const struct row *row = e->row;
	struct stamp now;

	stamp_of(&e->object.st, &now);
	if (row && row->place == ROW_IMPLIED && !row_live(row)) { /* a user's hand: no event, but apply must know */
		if (now.ino == row->stamp.ino && !differences(&now, &row->stamp, RECORD_DIRECTORY))
			return 0;
		return tell_state(w, e, SCAN_RESTAMP);
	}
	row = row_on_disk(e);
	if (!row)
		return tell_state(w, e, SCAN_NEW);
	if (row->record.kind != RECORD_DIRECTORY)
		return tell_state(w, e, SCAN_CHANGED);
	if (differences(&now, &row->stamp, RECORD_DIRECTORY))
		return tell_state(w, e, SCAN_TOUCHED);
	return now.ino == row->stamp.ino ? 0 : tell_state(w, e, SCAN_RESTAMP);
}

static bool known_directory(const struct entry *e)
{
	const struct row *row = e->row;

	if (!row)
		return false;
	return row_live(row) ? row->place == ROW_ON_DISK && row->record.kind == RECORD_DIRECTORY
			     : row->place == ROW_IMPLIED;
}

/* Enter a directory that was opened (fd is taken). */
static int enter(struct walk *w, struct entry *e, int fd, bool shallow)
{
	cleanup(frame_free_p) struct frame *f = frame_new(w, fd, strlen(w->path));
	int r, listing = 0;

	if (!f)
		return -ENOMEM;
	f->shallow = shallow;
	f->known.ended = !e->known; /* nothing below it is known either */
	f->st = e->object.st;
	r = frame_read(w, f, &listing);
	if (r < 0)
		return tell_plain(w, SCAN_ERROR, w->path, e->row, r);
	if (r == IGNORE_CHANGED)
		f->shallow = false;
	if (f->names.folder && has_folder(f->fd))
		return tell_plain(w, SCAN_LEFT_OUT, w->path, e->row, -ENOTUNIQ);
	r = judge_directory(w, e);
	if (!r && listing)
		r = tell_plain(w, SCAN_ERROR, w->path, e->row, listing);
	if (!r)
		push(w, steal(f));
	return r;
}

static int directory(struct walk *w, struct entry *e, const struct frame *in)
{
	cleanup_close int fd = -1;
	int r;

	w->counts.directories++;
	if (in->shallow && known_directory(e))
		return judge_directory(w, e);
	r = file_open_directory_at(e->dir, e->name, &fd);
	if (!r)
		r = file_stat_fd(fd, &e->object.st);
	if (r)
		return tell_not_entered(w, w->path, e->row, r);
	return enter(w, e, steal_fd(fd), in->child_shallow);
}

/* --- entries --- */

/* May this be a path at all? 0, or why not. */
static int check_name(const struct walk *w, const char *name)
{
	if (!path_component_valid(name, strlen(name)))
		return -EINVAL;
	return path_valid(w->path) ? 0 : -ENAMETOOLONG;
}

static int by_kind(struct walk *w, struct entry *e, struct frame *in, struct scan_known *known)
{
	switch (e->object.st.kind) {
	case FILE_KIND_DIRECTORY:
		return directory(w, e, in);
	case FILE_KIND_REGULAR:
		w->counts.files++;
		w->counts.hard_links += e->object.st.nlink > 1;
		return leaf(w, e, in, known);
	case FILE_KIND_SYMLINK:
		w->counts.symlinks++;
		return leaf(w, e, in, known);
	case FILE_KIND_OTHER:
		break;
	}
	return tell_plain(w, SCAN_LEFT_OUT, w->path, e->row, FILE_UNSUPPORTED);
}

/* A name that was not listed but answers may be another's, where the disk folds case or Unicode. 1
 * it is. */
static int is_alias(const struct walk *w, const struct frame *f, const char *name)
{
	const struct file_abilities *can = store_abilities(w->o->store);
	struct names names = {0};
	bool found = false;
	int r;

	if (!can->fold_case && !can->fold_unicode)
		return 0;
	r = names_read(&names, f->fd);
	for (size_t k = 0; k < names.n && !found; k++)
		found = !strcmp(name_at(&names, k), name);
	names_deinit(&names);
	return r ? r : !found;
}

static bool is_our_state(const struct frame *f, const char *name)
{
	return !f->path_n && !strcmp(name, PATH_STATE_NAME);
}

/* One name of a directory; w->path is set. */
static int entry(
	struct walk *w, struct frame *f, const char *name, struct scan_known *known, bool listed)
{
	struct entry e = {
		.path = w->path,
		.dir = f->fd,
		.name = w->path + f->path_n + (f->path_n != 0),
		.row = known && known->has_row ? &known->row : NULL,
		.known = known,
		.unproven = f->unproven,
	};
	int r = e.row ? 0 : check_name(w, name); /* the index has valid ones only */

	if (r)
		return is_our_state(f, name) ? 0 : tell_plain(w, SCAN_LEFT_OUT, w->path, NULL, r);
	if (busy(w, w->path))
		return 0;
	e.looked_ns = clock_wall_ns();
	r = file_stat_at(f->fd, name, &e.object.st);
	if (!r && !listed && is_alias(w, f, name) > 0)
		r = FILE_VANISHED;
	if (r == FILE_VANISHED || (r && DEFECT(UNREADABLE_IS_EMPTY)))
		return absent(w, &e);
	if (r) {
		/* a disk that fails here may have kept other names to itself */
		f->unproven = f->unproven || r < 0;
		return tell_not_entered(w, w->path, e.row, r);
	}
	if (w->o->ignore &&
		ignore_match_name(w->o->ignore, w->path, e.object.st.kind == FILE_KIND_DIRECTORY))
		return ignored(w, &e);
	r = by_kind(w, &e, f, known);
	scan_object_deinit(&e.object);
	return r;
}

static int set_name(struct walk *w, const struct frame *f, const char *name)
{
	size_t n = strlen(name), at = f->path_n + (f->path_n != 0);

	if (n > FILE_NAME_BYTES_MAX || at + n >= sizeof(w->path))
		return -ENAMETOOLONG;
	if (f->path_n)
		w->path[f->path_n] = '/';
	memcpy(w->path + at, name, n + 1);
	return 0;
}

/* The next name of the deepest directory, of disk and index the lesser one. */
static int step(struct walk *w)
{
	struct frame *f = w->frames[w->depth - 1];
	const char *name = f->at < f->names.n ? name_at(&f->names, f->at) : NULL;
	struct scan_known *known;
	int r, order;

	w->path[f->path_n] = '\0';
	r = scan_window_peek(&f->known, w->index, &w->zone, w->path, &known);
	if (r)
		return r;
	if (!name && !known)
		return pop(w);
	order = !name ? 1 : !known ? -1 : strcmp(name, known->name);
	f->at += order <= 0;
	f->known.at += order >= 0;
	if (order > 0)
		name = known->name;
	r = set_name(w, f, name);
	return r ? r : entry(w, f, name, order < 0 ? NULL : known, order <= 0);
}

static int walk(struct walk *w)
{
	int r = 0;

	while (w->depth && !r)
		r = cancelled(w) ? -ECANCELED : step(w);
	while (w->n && !r)
		r = cancelled(w) ? -ECANCELED : tell_first(w);
	return r;
}

/* --- where to begin --- */

/* All of the directory whose path is in w->path (fd is taken), but not itself. */
static int begin_in(struct walk *w, int fd, bool shallow)
{
	cleanup(frame_free_p) struct frame *f = frame_new(w, fd, strlen(w->path));
	int r, listing = 0;

	if (!f)
		return -ENOMEM;
	r = file_stat_fd(f->fd, &f->st);
	if (!r)
		r = frame_read(w, f, &listing);
	if (r < 0)
		return tell_plain(w, SCAN_ERROR, w->path, NULL, r);
	f->shallow = shallow && r != IGNORE_CHANGED;
	w->nothing_gone = listing && !f->path_n;
	push(w, steal(f));
	return listing ? tell_plain(w, SCAN_ERROR, w->path, NULL, listing) : 0;
}

/* The subtree, with the index's word on it, as the one entry of its parent directory. */
static int begin_at(struct walk *w, int fd, size_t parent_n)
{
	cleanup(frame_free_p) struct frame *f = frame_new(w, fd, parent_n);
	int r;

	if (!f)
		return -ENOMEM;
	f->child_shallow = w->o->shallow;
	r = file_stat_fd(f->fd, &f->st);
	if (!r)
		r = scan_window_single(&f->known, w->index, w->o->subtree);
	if (r)
		return r > 0 ? -EIO : r;
	push(w, steal(f));
	return 0;
}

/* The way to the subtree has ended above it. */
static int begin_nowhere(struct walk *w, int (*what)(struct walk *w, const struct entry *e))
{
	struct scan_window known = {0};
	struct entry e = {0};
	int r = scan_window_single(&known, w->index, w->o->subtree);

	strcpy(w->path, w->o->subtree);
	e.path = w->path;
	e.known = true;
	e.row = !r && known.v->has_row ? &known.v->row : NULL;
	r = r ? r : what(w, &e);
	scan_window_deinit(&known);
	return r;
}

static int tell_subtree(struct walk *w, enum scan_what what, int error)
{
	return tell_plain(w, what, w->o->subtree, NULL, error);
}

/* Go down one directory on the way to the subtree. 0: *fd is there now; 1: the way ends here, *ret
 * says how it went. */
static int descend(struct walk *w, int *fd, const char *name, int *ret)
{
	cleanup_close int next = -1;
	struct file_stat st;
	int r = file_stat_at(*fd, name, &st);

	if (r == FILE_VANISHED || (r == 0 && st.kind != FILE_KIND_DIRECTORY)) {
		*ret = begin_nowhere(w, absent);
		return 1;
	}
	if (r == 0 && w->o->ignore && ignore_match_name(w->o->ignore, w->path, true)) {
		*ret = begin_nowhere(w, ignored);
		return 1;
	}
	if (r == 0)
		r = file_open_directory_at(*fd, name, &next);
	if (r == 0 && has_folder(next)) {
		*ret = tell_subtree(w, SCAN_LEFT_OUT, -ENOTUNIQ);
		return 1;
	}
	if (r) {
		*ret = tell_not_entered(w, w->o->subtree, NULL, r);
		return 1;
	}
	close_keep(*fd);
	*fd = steal_fd(next);
	return 0;
}

/* Down to the subtree's parent, reading the rules on the way. */
static int begin_below(struct walk *w, int root)
{
	const char *subtree = w->o->subtree;
	cleanup_close int fd = root;
	size_t n = 0;
	int r;

	for (;;) {
		size_t name = n + (n != 0), name_n = strcspn(subtree + name, "/");

		w->path[n] = '\0';
		r = w->o->ignore ? ignore_read(w->o->ignore, fd, w->path) : 0;
		if (r < 0)
			return tell_subtree(w, SCAN_ERROR, r);
		if (r == IGNORE_CHANGED)
			return begin_in(w, steal_fd(fd), false);
		if (!subtree[name + name_n])
			return begin_at(w, steal_fd(fd), n);
		n = name + name_n;
		memcpy(w->path, subtree, n);
		w->path[n] = '\0';
		if (busy(w, w->path))
			return 0;
		if (descend(w, &fd, w->path + name, &r))
			return r;
	}
}

static int begin(struct walk *w)
{
	const char *subtree = w->o->subtree;
	int fd, r;

	if (*subtree && !path_valid(subtree)) {
		if (!strcmp(subtree, PATH_STATE_NAME) || path_is_below(subtree, PATH_STATE_NAME))
			return 0;
		return tell_subtree(w, SCAN_LEFT_OUT,
			strlen(subtree) > FILE_PATH_BYTES_MAX ? -ENAMETOOLONG : -EINVAL);
	}
	r = file_open_directory_at(store_root(w->o->store), "", &fd);
	if (r)
		return r > 0 ? STORE_ROOT_CHANGED : r;
	return *subtree ? begin_below(w, fd) : begin_in(w, fd, w->o->shallow);
}

/* --- the end --- */

static int tell_gone(struct walk *w)
{
	struct cursor c = cursor_over(w->gone.data, w->gone.len);
	int r = 0;

	while (cursor_left(&c) && !r) {
		struct scan_observation o = {
			.what = SCAN_GONE, .had_row = true, .seq = get_u64(&c)};
		bool directory = get_u8(&c);

		o.path = (const char *)c.p;
		c.p += strlen(o.path) + 1;
		if (directory && w->o->ignore)
			ignore_forget(w->o->ignore, o.path);
		r = tell(w, &o);
	}
	return r;
}

static void walk_free(struct walk *w)
{
	if (!w)
		return;
	drop_waiting(w);
	while (w->depth)
		frame_free(w->frames[--w->depth]);
	scan_zone_deinit(&w->zone);
	buf_deinit(&w->gone);
	free(w);
}

DEFINE_CLEANUP(struct walk *, walk_free)

static int is_empty(struct index *index, bool *ret)
{
	struct index_txn *t = NULL;
	struct index_counts counts;
	int r = index_begin_read(index, &t);

	if (!r)
		r = index_counts(t, &counts);
	index_abort(t);
	if (!r)
		*ret = !counts.live;
	return r;
}

int scan_run(const struct scan_options *options, const struct scan_sink *sink,
	struct scan_counts *ret_counts)
{
	cleanup(walk_free_p) struct walk *w = calloc(1, sizeof(*w));
	int64_t granularity = store_abilities(options->store)->time_granularity_ns;
	int r;

	if (!w)
		return -ENOMEM;
	w->o = options;
	w->sink = sink;
	w->index = store_index(options->store);
	r = is_empty(w->index, &w->nothing_known);
	if (r)
		return r;
	w->window_ns = granularity > SCAN_RACY_NS ? granularity : SCAN_RACY_NS;
	r = store_check_root(options->store);
	if (!r)
		r = begin(w);
	if (!r)
		r = walk(w);
	if (!r)
		r = store_check_root(options->store);
	if (!r && !w->nothing_gone)
		r = tell_gone(w);
	if (ret_counts)
		*ret_counts = w->counts;
	return r;
}
