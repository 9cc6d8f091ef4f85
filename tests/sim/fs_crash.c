/*
 * tests/sim/fs_crash.c — what is not durable yet; see "What a crash leaves" in tests/sim/fs.h.
 *
 * The tree in memory is the newest. Operations on names that are not durable stand in the disk's log, with what each name led to
 * before and after. A crash undoes all of them, does those again that it picked, and counts links anew. A pick is always closed:
 * with an operation it has the earlier ones that this one needs (`needs`), so that an operation's "before" is still true when it
 * is undone, and each name leads to what the last operation picked for it says. Nodes that an operation names outlive their last
 * link, in case it comes back.
 */
#include "tests/sim/fs_internal.h"

#include <stdlib.h>
#include <string.h>

#define LOG_MAX 1024  /* then the older half is written back */
#define DIRTY_MAX 256 /* then the list is looked through for what is clean */
#define SECTOR_BYTES 512

/* --- the log --- */

static void hold(struct node *n)
{
	if (n)
		n->pending++;
}

static void let_go(struct sim_disk *d, struct node *n)
{
	if (n && --n->pending == 0)
		node_let_go(d, n);
}

static void operation_free(struct sim_disk *d, struct operation *o)
{
	let_go(d, o->made);
	for (unsigned i = 0; i < o->n; i++) {
		free(o->side[i].name);
		let_go(d, o->side[i].before);
		let_go(d, o->side[i].after);
		let_go(d, o->side[i].dir);
	}
}

/* These are durable. `in` is closed. */
static void log_drop(struct sim_disk *d, const bool *in)
{
	struct operation *dropped = sim_alloc((d->n_log + 1) * sizeof(*dropped));
	size_t kept = 0, n = 0;

	for (size_t i = 0; i < d->n_log; i++)
		if (in[i])
			dropped[n++] = d->log[i];
		else
			d->log[kept++] = d->log[i];
	d->n_log = kept;
	for (size_t i = 0; i < n; i++)
		operation_free(d, &dropped[i]);
	free(dropped);
}

static void log_drop_first(struct sim_disk *d, size_t n)
{
	for (size_t i = 0; i < n; i++)
		operation_free(d, &d->log[i]);
	d->n_log -= n;
	if (d->n_log)
		memmove(d->log, d->log + n, d->n_log * sizeof(*d->log));
}

void crash_log(struct sim_disk *d, const struct operation *o)
{
	struct operation *copy;

	if (d->watcher)
		d->watcher->names(d, o, d->watcher->data);
	if (d->options.never_crashes)
		return;
	if (d->n_log == LOG_MAX)
		log_drop_first(d, LOG_MAX / 2);
	sim_grow(&d->log, &d->cap_log, d->n_log + 1, sizeof(*d->log));
	copy = &d->log[d->n_log++];
	*copy = *o;
	hold(copy->made);
	for (unsigned i = 0; i < copy->n; i++) {
		copy->side[i].name = strdup(copy->side[i].name);
		hold(copy->side[i].dir);
		hold(copy->side[i].before);
		hold(copy->side[i].after);
	}
}

void crash_log_free(struct sim_disk *d)
{
	log_drop_first(d, d->n_log);
}

static bool touches(const struct operation *o, const struct node *dir)
{
	return o->side[0].dir == dir || (o->n > 1 && o->side[1].dir == dir);
}

static bool same_place(const struct side *a, const struct side *b)
{
	/* names that fold to one have one hash, and two that share it by chance are only kept in order */
	return a->dir == b->dir && a->hash == b->hash;
}

static bool gives(const struct side *s, const struct node *n)
{
	return s->after == n && s->before != n;
}

static bool side_needs(const struct side *s, const struct operation *earlier)
{
	for (unsigned i = 0; i < earlier->n; i++) {
		const struct side *t = &earlier->side[i];

		if (same_place(s, t))
			return true;
		if (s->before && s->before != s->after &&
			(gives(t, s->before) || (s->before->kind == FILE_KIND_DIRECTORY && t->dir == s->before)))
			return true; /* a name goes: the others that were made, and what was done below, before */
		if (s->after && s->after->kind == FILE_KIND_DIRECTORY && gives(t, s->after))
			return true; /* a directory moves once more */
	}
	return earlier->made && (earlier->made == s->dir || earlier->made == s->after);
}

/* Two moves of directories keep their order, or one might end up below itself. */
static bool moves_directory(const struct operation *o)
{
	for (unsigned i = 0; i < o->n; i++)
		if (o->n > 1 && o->side[i].after && o->side[i].after->kind == FILE_KIND_DIRECTORY)
			return true;
	return false;
}

static bool reuses(const struct operation *later, const struct operation *earlier)
{
	for (unsigned i = 0; later->made && i < earlier->n; i++)
		if (earlier->side[i].before && earlier->side[i].before->ino == later->made->ino)
			return true;
	return false;
}

static bool needs(const struct operation *later, const struct operation *earlier)
{
	for (unsigned i = 0; i < later->n; i++)
		if (side_needs(&later->side[i], earlier))
			return true;
	return (moves_directory(later) && moves_directory(earlier)) || reuses(later, earlier);
}

/* What a sync of a directory makes durable, in the unordered models. */
static void sync_directory(struct sim_disk *d, const struct node *dir)
{
	bool *in = sim_alloc(d->n_log + 1);

	for (size_t i = d->n_log; i-- > 0;) {
		in[i] = touches(&d->log[i], dir);
		for (size_t k = i + 1; k < d->n_log && !in[i]; k++)
			in[i] = in[k] && needs(&d->log[k], &d->log[i]);
	}
	log_drop(d, in);
	free(in);
}

/* A random closed set. */
static bool *pick(struct sim_disk *d, uint64_t *stream)
{
	bool *in = sim_alloc(d->n_log + 1);
	size_t chance = sim_below(stream, 5), cut = sim_below(stream, d->n_log + 1);

	for (size_t i = 0; i < d->n_log; i++) {
		if (d->options.order == SIM_ORDERED) {
			in[i] = i < cut;
			continue;
		}
		in[i] = sim_below(stream, 4) < chance;
		for (size_t k = 0; k < i && in[i]; k++)
			in[i] = in[k] || !needs(&d->log[i], &d->log[k]);
	}
	return in;
}

/* --- what is dirty of files --- */

static void dirty_tidy(struct sim_disk *d)
{
	size_t kept = 0;

	for (size_t i = 0; i < d->n_dirty; i++) {
		struct node *n = d->dirty[i];
		bool dirty = n->attributes_dirty || n->now.size != n->durable.size || n->size_min < n->durable.size;

		for (size_t k = 0; k < n->n_extents && !dirty; k++)
			dirty = n->extents[k].dirty;
		n->listed = dirty;
		if (dirty)
			d->dirty[kept++] = n;
	}
	d->n_dirty = kept;
}

void crash_dirty(struct sim_disk *d, struct node *n)
{
	if (n->listed || d->options.never_crashes)
		return;
	if (d->n_dirty && d->n_dirty % DIRTY_MAX == 0)
		dirty_tidy(d);
	sim_grow(&d->dirty, &d->cap_dirty, d->n_dirty + 1, sizeof(*d->dirty));
	d->dirty[d->n_dirty++] = n;
	n->listed = true;
}

void crash_forget(struct sim_disk *d, struct node *n)
{
	for (size_t i = d->n_dirty; i-- > 0;)
		if (d->dirty[i] == n) {
			d->dirty[i] = d->dirty[--d->n_dirty];
			break;
		}
	n->listed = false;
}

static void extent_durable(struct extent *e)
{
	page_unref(e->old);
	e->old = NULL;
	e->dirty = false;
}

static void attributes_durable(struct node *n)
{
	uint64_t size = n->durable.size;

	n->durable = n->now;
	n->durable.size = size;
	n->attributes_dirty = false;
}

/* The journal has the inode, whatever is written of its data: what was cut off is gone. */
static void inode_durable(struct node *n)
{
	for (size_t i = 0; i < n->n_extents && n->size_min < n->durable.size; i++) {
		struct extent *e = &n->extents[i];
		uint64_t at = e->page * PAGE_BYTES;
		struct page *old = e->old;

		if (!old || at + old->n <= n->size_min)
			continue;
		e->old = at < n->size_min ? page_cut(old, n->size_min - at) : NULL;
		page_unref(old);
	}
	if (n->size_min < n->durable.size)
		n->durable.size = n->size_min;
	attributes_durable(n);
}

static void node_durable(struct node *n)
{
	size_t kept = 0;

	for (size_t i = 0; i < n->n_extents; i++) {
		struct extent *e = &n->extents[i];

		if (e->dirty && !e->lost)
			extent_durable(e);
		if (e->now || e->dirty)
			n->extents[kept++] = *e;
	}
	n->n_extents = kept;
	attributes_durable(n);
	n->durable.size = n->size_min = n->now.size;
	n->user_wrote = false;
}

/* A sync failed: what was to be written is not dirty any more for the kernel. `gone`: nor in its cache. */
static void node_lost(struct sim_disk *d, struct node *n, bool gone)
{
	if (n->user_wrote)
		return;
	for (size_t i = 0; i < n->n_extents; i++) {
		struct extent *e = &n->extents[i];

		if (!e->dirty)
			continue;
		e->lost = true;
		if (gone)
			content_set_page(n, e, e->old);
	}
	d->used -= n->allocated;
	content_count(d, n);
}

int crash_fsync(struct sim_disk *d, struct node *n, int error)
{
	if (d->options.never_crashes)
		return -error;
	if (error) {
		if (n->kind == FILE_KIND_REGULAR)
			node_lost(d, n, !n->region && sim_one_in(&d->random, 2));
		return -error;
	}
	node_durable(n);
	if (d->options.order == SIM_ORDERED) {
		for (size_t i = 0; i < d->n_dirty; i++)
			inode_durable(d->dirty[i]);
		log_drop_first(d, d->n_log);
	} else if (n->kind == FILE_KIND_DIRECTORY) {
		sync_directory(d, n);
	}
	return 0;
}

int crash_sync_all(struct sim_disk *d, int error)
{
	if (d->options.never_crashes)
		return -error;
	for (size_t i = 0; i < d->n_dirty; i++) {
		if (!error)
			node_durable(d->dirty[i]);
		else if (d->dirty[i]->kind == FILE_KIND_REGULAR)
			node_lost(d, d->dirty[i], false);
	}
	if (error)
		return -error;
	log_drop_first(d, d->n_log);
	dirty_tidy(d);
	return 0;
}

void sim_disk_sync(struct sim_disk *d)
{
	crash_sync_all(d, 0);
}

void crash_sync_range(struct sim_disk *d, struct node *n, uint64_t offset, uint64_t len)
{
	if (d->options.never_crashes)
		return;
	for (size_t i = 0; i < n->n_extents; i++) {
		struct extent *e = &n->extents[i];

		if (e->dirty && e->page >= offset / PAGE_BYTES && e->page * PAGE_BYTES < offset + len)
			extent_durable(e);
	}
	if (n->durable.size < offset + len)
		n->durable.size = offset + len;
}

void sim_disk_writeback(struct sim_disk *d, uint64_t *stream)
{
	bool *in = pick(d, stream);

	log_drop(d, in);
	free(in);
	for (size_t i = 0; i < d->n_dirty; i++) {
		struct node *n = d->dirty[i];
		bool all = sim_one_in(stream, 2);

		if (all)
			node_durable(n);
		for (size_t k = 0; k < n->n_extents && !all; k++)
			if (n->extents[k].dirty && !n->extents[k].lost && sim_one_in(stream, 2))
				extent_durable(&n->extents[k]);
	}
}

/* --- crashing --- */

/* The page as a crash in the middle of its being written leaves it; e's own are untouched. */
static struct page *torn(const struct extent *e, uint64_t *stream)
{
	size_t at = SECTOR_BYTES * (1 + sim_below(stream, PAGE_BYTES / SECTOR_BYTES - 1));
	struct page *p = malloc(sizeof(*p) + PAGE_BYTES);

	if (!p)
		sim_fatal("out of memory");
	*p = (struct page){.refs = 1, .n = PAGE_BYTES, .cap = PAGE_BYTES};
	memset(p->bytes, 0, PAGE_BYTES);
	if (e->old)
		memcpy(p->bytes, e->old->bytes, e->old->n);
	memset(p->bytes, 0, at);
	if (e->now)
		memcpy(p->bytes, e->now->bytes, e->now->n < at ? e->now->n : at);
	return p;
}

/* True if something newer is left of the page. */
static bool page_crash(struct node *n, struct extent *e, bool newer, uint64_t *stream)
{
	struct page *p;

	if (!newer || e->lost) {
		content_set_page(n, e, e->old);
		return false;
	}
	if (!n->region && sim_one_in(stream, 8)) {
		p = torn(e, stream);
		content_set_page(n, e, p);
		page_unref(p);
	}
	return true;
}

/* As large as it was, is, was at its smallest, or at a page between. */
static uint64_t size_crash(const struct node *n, uint64_t low, uint64_t *stream)
{
	uint64_t between = low;

	switch (sim_below(stream, 4)) {
	case 0:
		return low;
	case 1:
		return n->durable.size > low && n->durable.size <= n->now.size ? n->durable.size : low;
	case 2:
		return n->now.size;
	default:
		if (n->now.size > low)
			between += sim_below(stream, (size_t)(n->now.size - low));
		return between / PAGE_BYTES * PAGE_BYTES < low ? low : between / PAGE_BYTES * PAGE_BYTES;
	}
}

/* An ordered file system makes a file larger when what is then in it was written, and shorter in one step with the inode. */
static void node_crash(struct sim_disk *d, struct node *n, uint64_t *stream)
{
	uint64_t low = n->size_min < n->durable.size ? n->size_min : n->durable.size, size = size_crash(n, low, stream);
	bool in_order = d->options.order == SIM_ORDERED, cut = low < n->durable.size, newer = false, stale;
	bool before = in_order ? cut && sim_one_in(stream, 2) : sim_one_in(stream, 8);
	struct attributes now = n->now;
	size_t chance = sim_below(stream, 5);

	if (before || (!in_order && sim_one_in(stream, 4)))
		size = n->durable.size;
	for (size_t i = 0; i < n->n_extents; i++) {
		struct extent *e = &n->extents[i];
		bool grown = in_order && (e->page + 1) * PAGE_BYTES > low && e->page * PAGE_BYTES < size &&
			(size > low || !d->options.tails_lost);

		if (e->dirty && grown && !before && !e->lost)
			newer = true;
		else if (e->dirty)
			newer |= page_crash(n, e, !before && sim_below(stream, 4) < chance, stream);
	}
	newer |= size != n->durable.size;
	content_trim(n, size);
	stale = d->options.stale_ns && size == n->durable.size && sim_wall_ns(d->host) - n->durable.ctime_ns < d->options.stale_ns;
	if (before || (newer ? stale && sim_one_in(stream, 4) : sim_one_in(stream, 2)))
		now = n->durable;
	now.size = size;
	n->now = n->durable = now;
	n->size_min = size;
	n->attributes_dirty = n->listed = false;
}

/* Links and parents, from what the names say; a directory's second name goes. */
static void relink(struct sim_disk *d)
{
	struct node **todo = sim_alloc((d->n_nodes + 1) * sizeof(struct node *));
	size_t n = 0;

	for (size_t i = 0; i < d->n_nodes; i++) {
		d->nodes[i]->links = d->nodes[i]->subdirectories = 0;
		d->nodes[i]->parent = NULL;
	}
	d->root->links = 1;
	todo[n++] = d->root;
	while (n) {
		struct node *dir = todo[--n];

		for (size_t i = dir->n_entries; i-- > 0;) {
			struct node *child = dir->entries[i].node;

			if (child->kind == FILE_KIND_DIRECTORY && child->links) {
				tree_set(d, dir, dir->entries[i].name, NULL);
				continue;
			}
			child->links++;
			if (child->kind != FILE_KIND_DIRECTORY)
				continue;
			child->parent = dir;
			dir->subdirectories++;
			todo[n++] = child;
		}
	}
	free(todo);
}

static void names_crash(struct sim_disk *d, uint64_t *stream)
{
	bool *in = pick(d, stream);

	for (size_t i = d->n_log; i-- > 0;)
		for (unsigned k = d->log[i].n; k-- > 0;)
			tree_set(d, d->log[i].side[k].dir, d->log[i].side[k].name, d->log[i].side[k].before);
	for (size_t i = 0; i < d->n_log; i++) {
		bool split = d->options.order == SIM_SPLIT && d->log[i].rename && sim_one_in(stream, 2);

		for (unsigned k = split; k < d->log[i].n && in[i]; k++)
			tree_set(d, d->log[i].side[k].dir, d->log[i].side[k].name, d->log[i].side[k].after);
	}
	free(in);
}

void sim_disk_crash(struct sim_disk *d, uint64_t *stream)
{
	sim_handles_lost(d);
	d->mount = sim.next_mount++; /* who comes after it mounts it anew */
	names_crash(d, stream);
	relink(d);
	for (size_t i = 0; i < d->n_nodes; i++) {
		d->nodes[i]->pending = 0;
		if (d->nodes[i]->links)
			d->nodes[i]->released = false;
	}
	for (size_t i = 0; i < d->n_log; i++)
		for (unsigned k = 0; k < d->log[i].n; k++)
			free(d->log[i].side[k].name);
	d->n_log = 0;
	for (size_t i = d->n_nodes; i-- > 0;)
		if (!d->nodes[i]->links)
			node_free(d, d->nodes[i]);
	for (size_t i = 0; i < d->n_dirty; i++)
		node_crash(d, d->dirty[i], stream);
	d->n_dirty = 0;
	d->used = 0;
	for (size_t i = 0; i < d->n_nodes; i++)
		content_count(d, d->nodes[i]);
	inos_rebuild(d);
	d->killed = false;
}
