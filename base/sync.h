/*
 * base/sync.h — objects that are to be made durable together: one by one while they are few, else with their file system.
 */
#ifndef BASE_SYNC_H
#define BASE_SYNC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SYNC_SET_MAX 32 /* objects that are synced one by one */

/* Zero is an empty one. All objects are of one file system. */
struct sync_set {
	int fds[SYNC_SET_MAX]; /* owned */
	uint64_t inos[SYNC_SET_MAX];
	size_t n;
	bool many; /* there are more, or one that has no descriptor: sync the file system */
};

void sync_set_add(struct sync_set *s, int fd); /* takes fd over */
void sync_set_drop(struct sync_set *s);	       /* and sync nothing */
/* Sync them, and empty the set. any_fd: of the file system. 0 or < 0. */
int sync_set_run(struct sync_set *s, int any_fd);

#endif
