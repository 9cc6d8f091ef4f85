/*
 * syncd/watch.h — inotify over one folder: which paths may have changed. Events only mark paths; they prove nothing.
 *
 * A watch is added for each directory by the scan before it reads it (watch_directory, any thread). Watches know
 * their parent's and their name, so that a moved directory costs O(1). Overflow and the watch limit never end anything: they
 * are told once, with the sysctl to set, and the folder is rescanned (all of it, or periodically what can't be watched).
 */
#ifndef SYNCD_WATCH_H
#define SYNCD_WATCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum watch_what {
	WATCH_SETTLED,	/* the path: moved, deleted, attributes, made (directory, symlink) */
	WATCH_CLOSED,	/* the path: closed after it was open for writing. Stores through a mapping may have left its stamp as it was */
	WATCH_WRITING,	/* the path: being written, not closed yet */
	WATCH_SUBTREE,	/* the directory and all below: new or moved in, its watches are missing */
	WATCH_OVERFLOW, /* events were lost: everything ("" is given) */
	WATCH_LIMIT,	/* a directory can't be watched (path given): fs.inotify.max_user_watches; told once per limit */
	WATCH_ROOT_GONE, /* the root was moved, deleted or unmounted */
};

typedef void watch_tell(enum watch_what what, const char *path, void *data);

struct watch;
int watch_new(struct watch **ret, watch_tell *tell, void *data);
void watch_free(struct watch *w);
int watch_fd(const struct watch *w); /* readable: call watch_dispatch on the owner's thread */
int watch_dispatch(struct watch *w); /* reads all that is there; calls tell */
/* Watch the directory at `path` ("" = the root) through its descriptor; known ones are refreshed. Thread-safe.
 * `.syncd` is never watched. 0, or WATCH_FULL when the limit is reached (tell is called by the next dispatch). */
enum watch_outcome { WATCH_FULL = 1 };
int watch_directory(struct watch *w, int dirfd, const char *path);
size_t watch_count(struct watch *w);
size_t watch_unwatched(struct watch *w); /* directories that could not be watched */

#endif
