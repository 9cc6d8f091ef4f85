/*
 * merkle/scan.c — the walk: names on disk merged with rows of the index. See merkle/scan.h.
 *
 *   frame  one directory on the current path: its descriptor, its names in order, and a window on
 *          its rows in order
 *   entry  a name that is on disk, or in the index, or both; a name that only the index has is
 *          looked for all the same, since a listing may miss what is renamed while it is read
 *   ahead  a stretch of a directory's names that a thread of the pool looks at, from its end on, while the walk comes from
 *          its beginning: who meets the other stops. Where no thread is free, the walk looks at all of them itself
 *
 * Invariants:
 *  - Nothing is gone unless a lookup of its name, or of a directory above it, in a held directory
 *    said so; the directory was listed to its end without an error; and it still stands at its path
 *    when it is left.
 *  - Nothing that is gone is told before the whole walk is over and the root is still the one that
 *    was opened.
 *  - What is left out, unsettled or in error says nothing about the rows at or below it.
 *  - A directory is watched, then its rules are read, then its names, then these are looked at.
 *  - A look ahead shows at most that there is nothing to do; else the name is looked at in its turn.
 */
#include "merkle/scan_internal.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/defect.h"
#include "base/error.h"

struct name {
	uint64_t head; /* the first bytes behind those that all names begin with, as a number: most comparisons need no more */
	size_t at;     /* in the text */
};

struct names {
	struct buf text; /* NUL-terminated, one after the other */
	struct name *v;	 /* owned: sorted */
	size_t n, cap;
	size_t common; /* bytes that all begin with */
	bool folder; /* a PATH_STATE_NAME is among them */
};

#define AHEAD_LEAST 32	/* names: fewer are not worth waking a thread */
#define AHEAD_NAMES 512 /* of a stretch */
#define AHEAD_PAUSE 16	/* stretches, after one for which no thread was free */

struct looked {
	atomic_bool done; /* then this is valid: */
	int result;
	struct file_stat st;
};

struct ahead {
	struct pool_job job;
	struct pool *pool;
	const struct names *names;
	int fd;
	size_t from, to;	/* names: of the stretch; to = 0: there is none */
	atomic_size_t at;	/* the walk's */
	int64_t began_ns;	/* wall clock before it */
	struct looked v[];
};

struct frame {
	struct directory *directory; /* one user */
	int fd;			     /* its descriptor */
	size_t path_n;	     /* of the walk's path */
	struct file_stat st; /* of the directory */
	struct names names;
	size_t at; /* next name */
	struct ahead *ahead; /* owned; NULL: none was begun */
	struct scan_window known;
	bool shallow;	    /* directories below that have rows are not entered */
	bool child_shallow; /* what the frame of a directory below is to be */
	bool unproven;	    /* names may be missing */
	size_t gone_n;	    /* length of the walk's list when the directory was entered */
};

/* --- directories --- */

static const char *name_at(const struct names *names, size_t k)
{
	return (const char *)names->text.data + names->v[k].at;
}

static int names_add(struct names *names, const char *name)
{
	size_t n = strlen(name), same = 0;
	int r = array_reserve(&names->v, &names->cap, names->n + 1, sizeof(*names->v));

	if (r)
		return r;
	names->v[names->n++].at = names->text.len;
	put_bytes(&names->text, name, n + 1);
	if (buf_error(&names->text))
		return buf_error(&names->text);
	if (names->n == 1)
		names->common = n;
	while (same < names->common && name[same] == name_at(names, 0)[same])
		same++;
	names->common = same;
	names->folder = names->folder || (*name == '.' && !strcmp(name, PATH_STATE_NAME));
	return 0;
}

static void names_deinit(struct names *names)
{
	buf_deinit(&names->text);
	free(names->v);
}

/* behind: the text, and what all have in common */
static inline bool name_before(const struct name *a, const struct name *b, const char *behind)
{
	return a->head != b->head ? a->head < b->head : strcmp(behind + a->at, behind + b->at) < 0;
}

/* By merging, with room for half of them: qsort(3) takes twice as long, as it must call what compares. */
static void sort(struct name *v, size_t n, struct name *room, const char *behind)
{
	size_t half = n / 2, a = 0, b = half, to = 0;

	if (n < 2)
		return;
	sort(v, half, room, behind);
	sort(v + half, n - half, room, behind);
	memcpy(room, v, half * sizeof(*v));
	while (a < half && b < n)
		v[to++] = name_before(&v[b], &room[a], behind) ? v[b++] : room[a++];
	memcpy(v + to, room + a, (half - a) * sizeof(*v));
}

static int names_sort(struct names *names)
{
	cleanup_free struct name *room = names->n > 1 ? malloc(names->n / 2 * sizeof(*room)) : NULL;

	if (names->n < 2)
		return 0;
	if (!room)
		return -ENOMEM;
	for (size_t k = 0; k < names->n; k++) {
		const char *p = name_at(names, k) + names->common;

		names->v[k].head = 0;
		for (unsigned shift = 64; *p && shift; p++)
			names->v[k].head |= (uint64_t)(uint8_t)*p << (shift -= 8);
	}
	sort(names->v, names->n, room, (const char *)names->text.data + names->common);
	return 0;
}

/* What was listed before an error is kept: it is there. */
static int names_read(struct names *names, int fd)
{
	cleanup_file_dir struct file_dir *d = NULL;
	const char *name;
	int r = file_dir_open(fd, &d), sorted;

	while (!r) {
		r = file_dir_next(d, &name);
		if (!r)
			r = names_add(names, name);
	}
	sorted = names_sort(names);
	return sorted ? sorted : r == FILE_END ? 0 : r;
}

/* --- looking ahead --- */

static void look_ahead(struct pool_job *job)
{
	struct ahead *a = (struct ahead *)job;

	for (size_t k = a->to; k-- > atomic_load_explicit(&a->at, memory_order_relaxed);) {
		struct looked *l = &a->v[k - a->from];

		l->result = file_stat_at(a->fd, name_at(a->names, k), &l->st);
		atomic_store_explicit(&l->done, true, memory_order_release);
	}
}

static struct ahead *ahead_new(const struct walk *w, const struct frame *f)
{
	size_t n = f->names.n < AHEAD_NAMES ? f->names.n : AHEAD_NAMES;
	struct ahead *a = malloc(sizeof(*a) + n * sizeof(*a->v));

	if (a)
		*a = (struct ahead){.pool = w->o->pool, .names = &f->names, .fd = f->fd};
	return a;
}

/* Nobody looks any more. true: nobody had begun to, the walk was alone. */
static bool ahead_end(struct ahead *a)
{
	bool alone;

	if (!a->to)
		return false;
	atomic_store_explicit(&a->at, SIZE_MAX, memory_order_relaxed);
	alone = pool_cancel(a->pool, &a->job);
	a->to = 0;
	return alone;
}

/* The walk is at a name: begin a stretch, if it is where the last one ends. Without memory it goes on alone. */
static void ahead_begin(struct walk *w, struct frame *f)
{
	size_t left = f->names.n - f->at;
	struct ahead *a = f->ahead;

	if (a && f->at < a->to) {
		atomic_store_explicit(&a->at, f->at, memory_order_relaxed);
		return;
	}
	if (a && ahead_end(a))
		w->ahead_pause = AHEAD_PAUSE;
	if (left < AHEAD_LEAST || w->nothing_known || f->known.ended || pool_at_once(w->o->pool))
		return;
	if (w->ahead_pause) {
		w->ahead_pause -= f->at % AHEAD_NAMES == 0;
		return;
	}
	if (!a)
		a = f->ahead = ahead_new(w, f);
	if (!a)
		return;
	a->from = f->at;
	a->to = f->at + (left < AHEAD_NAMES ? left : AHEAD_NAMES);
	for (size_t k = a->from; k < a->to; k++)
		atomic_init(&a->v[k - a->from].done, false);
	atomic_store_explicit(&a->at, f->at, memory_order_relaxed);
	a->began_ns = clock_wall_ns();
	a->job.run = look_ahead;
	pool_add(a->pool, &a->job, true);
}

/* The name in hand was looked at ahead, and that is all that it needs. */
static bool ahead_clean(const struct walk *w, const struct frame *f, struct entry *e)
{
	const struct ahead *a = f->ahead;
	const struct looked *l;

	if (!a || f->at > a->to || f->at <= a->from)
		return false;
	l = &a->v[f->at - 1 - a->from];
	if (!atomic_load_explicit(&l->done, memory_order_acquire) || l->result)
		return false;
	e->object.st = l->st;
	e->looked_ns = a->began_ns;
	return walk_clean(w, e);
}

static void frame_free(struct frame *f)
{
	if (!f)
		return;
	if (f->ahead)
		ahead_end(f->ahead);
	free(f->ahead);
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

/* 0: the directory is still what its path names; what is gone inside one that was moved away (FILE_VANISHED) is not gone. Else why
 * nobody knows. */
static int still_there(const struct walk *w, const struct frame *f)
{
	cleanup_close int fd = -1;
	struct file_stat st;
	int r = file_open_directory_at(store_root(w->o->store), w->path, &fd);

	if (r == 0)
		r = file_stat_fd(fd, &st);
	return r ? r : st.ino == f->st.ino && st.dev == f->st.dev ? 0 : FILE_VANISHED;
}

static int pop(struct walk *w)
{
	cleanup(frame_free_p) struct frame *f = w->frames[--w->depth];
	int r;

	w->path[f->path_n] = '\0';
	r = w->gone.len == f->gone_n ? 0 : still_there(w, f);
	if (r == 0)
		return 0;
	w->gone.len = f->gone_n;
	if (r == FILE_VANISHED || r == FILE_OUTSIDE)
		return walk_tell_plain(w, SCAN_UNSETTLED, w->path, NULL, 0);
	return walk_tell_plain(w, SCAN_ERROR, w->path, NULL, r);
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
	return walk_fatal(*ret_listing) ? *ret_listing : changed;
}

static bool known_directory(const struct entry *e)
{
	const struct row_brief *row = e->row;

	if (!row)
		return false;
	return row->live ? row->place == ROW_ON_DISK && row->kind == RECORD_DIRECTORY
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
		return walk_tell_plain(w, SCAN_ERROR, w->path, e->row, r);
	if (r == IGNORE_CHANGED)
		f->shallow = false;
	if (f->names.folder && has_folder(f->fd))
		return walk_tell_plain(w, SCAN_LEFT_OUT, w->path, e->row, -ENOTUNIQ);
	e->empty = !listing && f->names.n == 0;
	r = walk_judge_directory(w, e);
	if (!r && listing)
		r = walk_tell_plain(w, SCAN_ERROR, w->path, e->row, listing);
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
		return walk_judge_directory(w, e);
	r = file_open_directory_at(e->dir, e->name, &fd);
	if (!r)
		r = file_stat_fd(fd, &e->object.st);
	if (r)
		return walk_tell_not_entered(w, w->path, e->row, r);
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
		return walk_leaf(w, e, in->directory, known);
	case FILE_KIND_SYMLINK:
		w->counts.symlinks++;
		return walk_leaf(w, e, in->directory, known);
	case FILE_KIND_OTHER:
		break;
	}
	return walk_tell_plain(w, SCAN_LEFT_OUT, w->path, e->row, FILE_UNSUPPORTED);
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
		return is_our_state(f, name) ? 0 : walk_tell_plain(w, SCAN_LEFT_OUT, w->path, NULL, r);
	if (walk_busy(w, w->path))
		return 0;
	if (!listed || !ahead_clean(w, f, &e)) {
		e.looked_ns = clock_wall_ns();
		r = file_stat_at(f->fd, name, &e.object.st);
	}
	if (!r && !listed && is_alias(w, f, name) > 0)
		r = FILE_VANISHED;
	if (r == FILE_VANISHED || (r && DEFECT(UNREADABLE_IS_EMPTY)))
		return walk_absent(w, &e);
	if (r) {
		/* a disk that fails here may have kept other names to itself */
		f->unproven = f->unproven || r < 0;
		return walk_tell_not_entered(w, w->path, e.row, r);
	}
	if (w->o->ignore &&
		ignore_match_name(w->o->ignore, w->path, e.object.st.kind == FILE_KIND_DIRECTORY))
		return walk_ignored(w, &e);
	r = by_kind(w, &e, f, known);
	if (e.object.nodes || e.object.target)
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
	if (name)
		ahead_begin(w, f);
	order = !name ? 1 : !known ? -1 : strcmp(name, scan_window_name(&f->known, known));
	f->at += order <= 0;
	f->known.at += order >= 0;
	if (order > 0)
		name = scan_window_name(&f->known, known);
	r = set_name(w, f, name);
	return r ? r : entry(w, f, name, order < 0 ? NULL : known, order <= 0);
}

static int walk(struct walk *w)
{
	int r = 0;

	while (w->depth && !r) {
		r = walk_cancelled(w) ? -ECANCELED : step(w);
		pace_worked(w->o->pace);
	}
	while (w->n && !r)
		r = walk_cancelled(w) ? -ECANCELED : walk_tell_first(w);
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
		return walk_tell_plain(w, SCAN_ERROR, w->path, NULL, r);
	f->shallow = shallow && r != IGNORE_CHANGED;
	w->nothing_gone = listing && !f->path_n;
	push(w, steal(f));
	return listing ? walk_tell_plain(w, SCAN_ERROR, w->path, NULL, listing) : 0;
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
	return walk_tell_plain(w, what, w->o->subtree, NULL, error);
}

/* Go down one directory on the way to the subtree. 0: *fd is there now; 1: the way ends here, *ret
 * says how it went. */
static int descend(struct walk *w, int *fd, const char *name, int *ret)
{
	cleanup_close int next = -1;
	struct file_stat st;
	int r = file_stat_at(*fd, name, &st);

	if (r == FILE_VANISHED || (r == 0 && st.kind != FILE_KIND_DIRECTORY)) {
		*ret = begin_nowhere(w, walk_absent);
		return 1;
	}
	if (r == 0 && w->o->ignore && ignore_match_name(w->o->ignore, w->path, true)) {
		*ret = begin_nowhere(w, walk_ignored);
		return 1;
	}
	if (r == 0)
		r = file_open_directory_at(*fd, name, &next);
	if (r == 0 && has_folder(next)) {
		*ret = tell_subtree(w, SCAN_LEFT_OUT, -ENOTUNIQ);
		return 1;
	}
	if (r) {
		*ret = walk_tell_not_entered(w, w->o->subtree, NULL, r);
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
		if (walk_busy(w, w->path))
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
		r = walk_tell(w, &o);
	}
	return r;
}

static void walk_free(struct walk *w)
{
	if (!w)
		return;
	walk_drop_waiting(w);
	while (w->depth)
		frame_free(w->frames[--w->depth]);
	scan_zone_deinit(&w->zone);
	buf_deinit(&w->gone);
	free(w->waiting);
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
	if (options->pool) {
		w->waiting = malloc(SCAN_AHEAD * sizeof(*w->waiting));
		if (!w->waiting)
			return -ENOMEM;
	}
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
