/*
 * syncd/watch.c — inotify over one folder.
 *
 *   nodes by watch descriptor (uthash) ──parent, name──▶ path            children of a node: a uthash by name
 *
 * inotify follows inodes: when a directory is moved inside the tree its watch stays; its node gets another parent or name,
 * and everything below it has moved with it. A directory that is moved out, or replaced, loses its nodes (and watches).
 * A node has a parent, or is the root, or is under way (in moves): one of the three, and only one.
 *
 * One mutex: the scan adds from a worker thread while the owner dispatches. Told paths are computed under it, and told
 * without it.
 */
#include "syncd/watch.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/inotify.h>
#include <unistd.h>
#define HASH_NONFATAL_OOM 1 /* then the element has no table */
#include <uthash.h>

#include "base/error.h"
#include "merkle/path.h"

#define EVENTS                                                                                     \
	(IN_CREATE | IN_DELETE | IN_MODIFY | IN_CLOSE_WRITE | IN_ATTRIB | IN_MOVED_FROM | IN_MOVED_TO | IN_DELETE_SELF | \
		IN_MOVE_SELF | IN_ONLYDIR | IN_DONT_FOLLOW | IN_EXCL_UNLINK)
#define READ_BYTES 65536
#define MOVES_MAX 64 /* directories moved from somewhere, whose other half has not come yet */

struct node {
	UT_hash_handle hh_wd;	/* in watch.by_wd */
	UT_hash_handle hh_name; /* in parent's children */
	int wd;
	struct node *parent; /* NULL: the root */
	struct node *children;
	char *name; /* "" for the root; owned */
};

/* A directory that left its place; it comes back in the same read, or soon, or never. */
struct move {
	uint32_t cookie;
	struct node *node;
};

struct told {
	enum watch_what what;
	char *path;
};

struct watch {
	int fd;
	watch_tell *tell;
	void *data;
	pthread_mutex_t lock;
	struct node *by_wd;
	struct node *root;
	size_t unwatched;
	bool limit_to_tell;
	char *limit_path;
	struct move moves[MOVES_MAX];
	size_t n_moves;
	struct told *out; /* collected under the lock */
	size_t n_out, cap_out;
	bool out_lost; /* no memory: tell everything */
};

/* --- the tree of nodes; the lock is held --- */

static void node_path(const struct node *n, char *ret)
{
	const struct node *chain[FILE_DEPTH_MAX + 1];
	size_t depth = 0, at = 0;

	for (; n->parent && depth < FILE_DEPTH_MAX; n = n->parent)
		chain[depth++] = n;
	ret[0] = 0;
	while (depth--) {
		size_t length = strlen(chain[depth]->name);

		if (at + length + 2 > FILE_PATH_BYTES_MAX)
			return; /* longer than a path may be: nothing there is ours */
		if (at)
			ret[at++] = '/';
		memcpy(ret + at, chain[depth]->name, length + 1);
		at += length;
	}
}

static void detach(struct node *n)
{
	if (n->parent)
		HASH_DELETE(hh_name, n->parent->children, n);
	n->parent = NULL;
}

static int attach(struct node *n, struct node *parent, const char *name)
{
	char *copy = strdup(name);

	if (!copy)
		return -ENOMEM;
	free(n->name);
	n->name = copy;
	n->parent = parent;
	HASH_ADD_KEYPTR(hh_name, parent->children, n->name, strlen(n->name), n);
	if (n->hh_name.tbl)
		return 0;
	n->parent = NULL;
	return -ENOMEM;
}

static void forget_move(struct watch *w, const struct node *n)
{
	for (size_t i = 0; i < w->n_moves; i++) {
		if (w->moves[i].node != n)
			continue;
		memmove(w->moves + i, w->moves + i + 1, (--w->n_moves - i) * sizeof(*w->moves));
		return;
	}
}

/* Is `n` `above`, or below it? */
static bool is_at_or_below(const struct node *n, const struct node *above)
{
	while (n && n != above)
		n = n->parent;
	return n;
}

/* Forget a node and all below; `remove`: also their watches. Iterative, since trees are deep. */
static void drop(struct watch *w, struct node *n, bool remove)
{
	forget_move(w, n);
	detach(n);
	while (n) {
		struct node *child = n->children, *parent = n->parent;

		if (child) {
			n = child;
			continue;
		}
		if (parent)
			HASH_DELETE(hh_name, parent->children, n);
		HASH_DELETE(hh_wd, w->by_wd, n);
		if (remove)
			inotify_rm_watch(w->fd, n->wd);
		if (n == w->root)
			w->root = NULL;
		free(n->name);
		free(n);
		n = parent;
	}
}

/* attach() or forget: a node without a place is not kept. */
static int reattach(struct watch *w, struct node *n, struct node *parent, const char *name)
{
	int r = attach(n, parent, name);

	if (r < 0)
		drop(w, n, true);
	return r;
}

static struct node *find_path(struct watch *w, const char *path)
{
	struct node *n = w->root;

	while (n && *path) {
		size_t length = strcspn(path, "/");
		struct node *child = NULL;

		HASH_FIND(hh_name, n->children, path, length, child);
		n = child;
		path += length + (path[length] == '/');
	}
	return n;
}

/* --- collecting what to tell --- */

static void collect(struct watch *w, enum watch_what what, const char *path)
{
	size_t cap = w->cap_out;
	int r = array_reserve(&w->out, &cap, w->n_out + 1, sizeof(*w->out));
	char *copy = r == 0 ? strdup(path) : NULL;

	w->cap_out = cap;
	if (!copy) {
		w->out_lost = true;
		return;
	}
	w->out[w->n_out++] = (struct told){.what = what, .path = copy};
}

static void collect_child(struct watch *w, enum watch_what what, const struct node *n, const char *name)
{
	char path[FILE_PATH_BYTES_MAX + FILE_NAME_BYTES_MAX + 2];
	size_t length;

	node_path(n, path);
	if (n->parent && !path[0])
		return;
	length = strlen(path);
	snprintf(path + length, sizeof(path) - length, "%s%s", length ? "/" : "", name);
	collect(w, what, path);
}

/* --- events --- */

static void directory_moved_from(struct watch *w, struct node *n, const struct inotify_event *e)
{
	struct node *child = NULL;

	HASH_FIND(hh_name, n->children, e->name, strlen(e->name), child);
	if (!child)
		return;
	detach(child);
	if (w->n_moves == MOVES_MAX)
		drop(w, w->moves[0].node, true);
	w->moves[w->n_moves++] = (struct move){.cookie = e->cookie, .node = child};
}

/* The moved directory's node, if its other half is known. */
static struct node *take_move(struct watch *w, uint32_t cookie)
{
	for (size_t i = 0; i < w->n_moves; i++) {
		struct node *n = w->moves[i].node;

		if (w->moves[i].cookie != cookie)
			continue;
		forget_move(w, n);
		return n;
	}
	return NULL;
}

static void directory_appeared(struct watch *w, struct node *n, const struct inotify_event *e)
{
	struct node *there = NULL, *moved = e->mask & IN_MOVED_TO ? take_move(w, e->cookie) : NULL;

	HASH_FIND(hh_name, n->children, e->name, strlen(e->name), there);
	if (there)
		drop(w, there, true);
	if (moved)
		reattach(w, moved, n, e->name);
	/* Its content is looked at whole in any case: what happened while it was on its way was told under no name. */
	collect_child(w, WATCH_SUBTREE, n, e->name);
}

static void directory_gone(struct watch *w, struct node *n, const char *name)
{
	struct node *child = NULL;

	HASH_FIND(hh_name, n->children, name, strlen(name), child);
	if (child)
		drop(w, child, true);
}

static void self_event(struct watch *w, struct node *n, uint32_t mask)
{
	if (n == w->root && mask & (IN_DELETE_SELF | IN_MOVE_SELF | IN_UNMOUNT))
		collect(w, WATCH_ROOT_GONE, "");
	if (mask & (IN_DELETE_SELF | IN_UNMOUNT | IN_IGNORED)) {
		drop(w, n, false);
		return;
	}
	/* The kernel tells both halves of a move first: it went where nothing is watched, and is not ours any more. */
	if (mask & IN_MOVE_SELF && n != w->root && !n->parent) {
		drop(w, n, true);
		return;
	}
	if (mask & IN_ATTRIB) {
		char path[FILE_PATH_BYTES_MAX + 1];

		node_path(n, path);
		if (*path || n == w->root)
			collect(w, WATCH_SETTLED, path);
	}
}

static void on_event(struct watch *w, const struct inotify_event *e)
{
	struct node *n = NULL;

	if (e->mask & IN_Q_OVERFLOW) {
		collect(w, WATCH_OVERFLOW, "");
		return;
	}
	HASH_FIND(hh_wd, w->by_wd, &e->wd, sizeof(e->wd), n);
	if (!n)
		return;
	if (!e->len) {
		self_event(w, n, e->mask);
		return;
	}
	if (!n->parent && strcasecmp(e->name, PATH_STATE_NAME) == 0)
		return;
	if (e->mask & IN_ISDIR && e->mask & (IN_CREATE | IN_MOVED_TO)) {
		directory_appeared(w, n, e);
		return;
	}
	if (e->mask & IN_ISDIR && e->mask & IN_MOVED_FROM)
		directory_moved_from(w, n, e);
	else if (e->mask & IN_ISDIR && e->mask & IN_DELETE)
		directory_gone(w, n, e->name);
	if (e->mask & IN_ISDIR && e->mask & IN_ATTRIB) {
		struct node *child = NULL;

		HASH_FIND(hh_name, n->children, e->name, strlen(e->name), child);
		if (!child) /* it could not be opened, and may be readable now */
			collect_child(w, WATCH_SUBTREE, n, e->name);
		return; /* a watched directory tells it itself */
	}
	/* A new file is being written as a rule: IN_CLOSE_WRITE settles it; a new symlink or hard link waits a little. */
	collect_child(w,
		e->mask & IN_CLOSE_WRITE	      ? WATCH_CLOSED
		: e->mask & (IN_MODIFY | IN_CREATE) ? WATCH_WRITING
						      : WATCH_SETTLED,
		n, e->name);
}

static void tell_collected(struct watch *w)
{
	struct told *out;
	size_t n;
	bool lost, limit;
	char *limit_path;

	pthread_mutex_lock(&w->lock);
	out = steal(w->out);
	n = w->n_out;
	w->n_out = w->cap_out = 0;
	lost = w->out_lost;
	w->out_lost = false;
	limit = w->limit_to_tell;
	limit_path = steal(w->limit_path);
	w->limit_to_tell = false;
	pthread_mutex_unlock(&w->lock);
	for (size_t i = 0; i < n; i++) {
		w->tell(out[i].what, out[i].path, w->data);
		free(out[i].path);
	}
	free(out);
	if (lost)
		w->tell(WATCH_OVERFLOW, "", w->data);
	if (limit)
		w->tell(WATCH_LIMIT, limit_path ? limit_path : "", w->data);
	free(limit_path);
}

int watch_dispatch(struct watch *w)
{
	_Alignas(struct inotify_event) char bytes[READ_BYTES];
	ssize_t n;
	int r = 0;

	while ((n = read(w->fd, bytes, sizeof(bytes))) > 0) {
		pthread_mutex_lock(&w->lock);
		for (char *p = bytes; p < bytes + n;) {
			const struct inotify_event *e = (const struct inotify_event *)p;

			on_event(w, e);
			p += sizeof(*e) + e->len;
		}
		pthread_mutex_unlock(&w->lock);
	}
	if (n < 0 && errno != EAGAIN && errno != EINTR)
		r = -errno;
	tell_collected(w);
	return r;
}

/* --- adding --- */

static int add_node(struct watch *w, int wd, const char *path)
{
	struct node *n = NULL, *parent = NULL, *there;
	size_t above = path_parent_length(path);
	char up[FILE_PATH_BYTES_MAX + 1];

	memcpy(up, path, above);
	up[above] = 0;
	there = find_path(w, path);
	if (there && there->wd == wd)
		return 0;
	if (*path && !(parent = find_path(w, up)))
		return -ENOENT; /* its parent went away meanwhile: an event says so */
	HASH_FIND(hh_wd, w->by_wd, &wd, sizeof(wd), n);
	if (n && is_at_or_below(parent, n))
		return 0; /* moved below what was below it: the events of that are still to come */
	if (n) { /* the same directory under another name: it was moved; perhaps out of the one that was `there` */
		forget_move(w, n);
		detach(n);
	}
	if (there)
		drop(w, there, true);
	if (n && !parent)
		w->root = n;
	if (n)
		return parent ? reattach(w, n, parent, path_name(path)) : 0;
	n = calloc(1, sizeof(*n));
	if (!n || (!parent && !(n->name = strdup("")))) {
		free(n);
		return -ENOMEM;
	}
	n->wd = wd;
	HASH_ADD(hh_wd, w->by_wd, wd, sizeof(n->wd), n);
	if (!n->hh_wd.tbl) {
		free(n->name);
		free(n);
		return -ENOMEM;
	}
	if (!parent) {
		w->root = n;
		return 0;
	}
	if (attach(n, parent, path_name(path)) < 0) {
		HASH_DELETE(hh_wd, w->by_wd, n);
		free(n->name);
		free(n);
		return -ENOMEM;
	}
	return 0;
}

int watch_directory(struct watch *w, int dirfd, const char *path)
{
	struct node *known = NULL;
	char proc[40];
	int wd, r = 0;

	if (strcasecmp(path, PATH_STATE_NAME) == 0)
		return 0;
	snprintf(proc, sizeof(proc), "/proc/self/fd/%d", dirfd);
	pthread_mutex_lock(&w->lock);
	/* The last component of the name is a magic link: it must be followed, to the directory that is held. */
	wd = inotify_add_watch(w->fd, proc, EVENTS & ~IN_DONT_FOLLOW);
	if (wd >= 0) {
		r = add_node(w, wd, path);
		HASH_FIND(hh_wd, w->by_wd, &wd, sizeof(wd), known);
		if (!known)
			inotify_rm_watch(w->fd, wd);
		if (r == -ENOENT)
			r = 0;
	} else if (errno == ENOSPC || errno == ENOMEM) {
		if (!w->unwatched++) {
			w->limit_to_tell = true;
			free(w->limit_path);
			w->limit_path = strdup(path);
		}
		r = WATCH_FULL;
	} else {
		r = -errno;
	}
	pthread_mutex_unlock(&w->lock);
	return r;
}

size_t watch_count(struct watch *w)
{
	size_t n;

	pthread_mutex_lock(&w->lock);
	n = HASH_CNT(hh_wd, w->by_wd);
	pthread_mutex_unlock(&w->lock);
	return n;
}

size_t watch_unwatched(struct watch *w)
{
	size_t n;

	pthread_mutex_lock(&w->lock);
	n = w->unwatched;
	pthread_mutex_unlock(&w->lock);
	return n;
}

int watch_new(struct watch **ret, watch_tell *tell, void *data)
{
	struct watch *w = calloc(1, sizeof(*w));

	if (!w)
		return -ENOMEM;
	w->fd = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
	if (w->fd < 0) {
		int r = -errno;

		free(w);
		return r;
	}
	w->tell = tell;
	w->data = data;
	pthread_mutex_init(&w->lock, NULL);
	*ret = w;
	return 0;
}

void watch_free(struct watch *w)
{
	if (!w)
		return;
	while (w->n_moves)
		drop(w, w->moves[0].node, false);
	if (w->root)
		drop(w, w->root, false);
	for (size_t i = 0; i < w->n_out; i++)
		free(w->out[i].path);
	free(w->out);
	free(w->limit_path);
	close(w->fd);
	pthread_mutex_destroy(&w->lock);
	free(w);
}

int watch_fd(const struct watch *w)
{
	return w->fd;
}
