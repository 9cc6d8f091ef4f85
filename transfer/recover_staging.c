/*
 * transfer/recover_staging.c — see transfer/recover_internal.h.
 */
#include "transfer/recover_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "merkle/path.h"
#include "tombstones/trash.h"
#include "transfer/partial.h"

#define LOST_PREFIX "recovered-from-staging"

static bool kept(const struct recovery *v, const char *name)
{
	for (size_t k = 0; k < v->n; k++) {
		const struct pending *e = &v->v[k];
		char marker[RECOVER_MARKER_BYTES];

		if (!e->outcome.keep)
			continue;
		recover_marker(marker, e->batch);
		if (strcmp(name, marker) == 0 ||
			(e->intent.staged && strcmp(name, e->intent.staged) == 0) ||
			(e->intent.displaced && strcmp(name, e->intent.displaced) == 0))
			return true;
	}
	return false;
}

/* What an older index left in staging, as a new one knows of no intents, or what is in a directory there, may be a user's
 * only copy. path: in staging. */
static int keep_lost(struct recovery *v, int dir, const char *name, const char *path, int64_t now_ns)
{
	cleanup_free char *lost = path_join(LOST_PREFIX, path);

	return lost ? trash_put(v->store, dir, name, lost, now_ns, NULL) : -ENOMEM;
}

/* What can't be listed stays. */
static int list_names(int dir, struct file_names *l)
{
	int r = file_names_read(dir, l);

	return r < 0 ? r : 0;
}

/* 0: what is left in l are directories. */
static int keep_files(struct recovery *v, const char *path, struct file_names *l, int64_t now_ns)
{
	cleanup_close int dir = -1;
	int r = file_open_directory_at(store_staging(v->store), path, &dir);

	if (r == 0)
		r = list_names(dir, l);
	for (size_t k = l->n; r == 0 && k-- > 0;) {
		cleanup_free char *below = path_join(path, l->v[k]);

		r = below ? keep_lost(v, dir, l->v[k], below, now_ns) : -ENOMEM;
		if (r != FILE_IS_DIRECTORY) {
			free(l->v[k]);
			l->v[k] = l->v[--l->n];
		}
		if (r > 0 || r == -EINVAL)
			r = 0; /* what can't be there stays */
	}
	return r;
}

/* One that could not be put in its place. No descriptor is held below another. */
static int empty_directory(struct recovery *v, const char *path, int64_t now_ns)
{
	cleanup(file_names_deinit) struct file_names l = {0};
	cleanup_close int dir = -1;
	const char *name;
	int r = keep_files(v, path, &l, now_ns);

	for (size_t k = 0; r == 0 && k < l.n; k++) {
		cleanup_free char *below = path_join(path, l.v[k]);

		r = below ? empty_directory(v, below, now_ns) : -ENOMEM;
		r = r > 0 ? 0 : r;
	}
	if (r == 0)
		r = file_open_parent(store_staging(v->store), path, &dir, &name);
	return r == 0 ? file_rmdir(dir, name) : r;
}

static int empty_one(struct recovery *v, const char *name, int64_t now_ns)
{
	int staging = store_staging(v->store);
	int r;

	if (strncmp(name, FILE_PROBE_PREFIX, strlen(FILE_PROBE_PREFIX)) == 0)
		r = file_probe_remove(staging, name);
	else
		r = v->first ? keep_lost(v, staging, name, name, now_ns) : file_unlink(staging, name);
	if (r == FILE_IS_DIRECTORY)
		r = empty_directory(v, name, now_ns);
	return r < 0 ? r : 0;
}

int recover_empty_staging(struct recovery *v, int64_t now_ns)
{
	cleanup(file_names_deinit) struct file_names l = {0};
	int r = list_names(store_staging(v->store), &l);

	for (size_t k = 0; r == 0 && k < l.n; k++)
		if (!kept(v, l.v[k]) && (v->first || !partial_stays(v->store, l.v[k], now_ns)))
			r = empty_one(v, l.v[k], now_ns);
	return r;
}
