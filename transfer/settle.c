/* transfer/settle.c — see transfer/settle.h. */
#include "transfer/settle.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

int settle_nodes(struct settle *s, const struct chunk_tree_node *nodes, size_t n)
{
	int r = 0;

	for (size_t i = 0; r == 0 && i < n; i++)
		r = index_node_put(s->txn->index, &nodes[i].hash, nodes[i].level, nodes[i].payload,
			nodes[i].n);
	return r;
}

/* --- conflict copies --- */

/* May a copy at this name be an event of its own, and what does it descend from? A live row that is
 * not this content, or not on this disk, is left to the next scan. */
static bool copy_descends(
	const struct row *row, const struct record *state, const struct record **ret_old)
{
	*ret_old = row_has_record(row) ? &row->record : NULL;
	if (!*ret_old || !row->record.live)
		return true;
	return row->place == ROW_ON_DISK && record_same_state(&row->record, state);
}

/* stamp NULL: the copy stood there before. Its content is said anew; its mode and times, which nobody set, are its own. */
static int settle_copy(struct settle *s, const char *path, const struct record *state,
	const struct stamp *stamp, int64_t looked_ns)
{
	cleanup(row_deinit) struct row was = {0}, row = {0};
	const struct record *old;
	int r = index_get(s->txn->index, path, &was);

	if (r < 0)
		return r;
	if (!copy_descends(&was, state, &old) || (!stamp && !row_live(&was)))
		return 0;
	if (s->ignore && ignore_match(s->ignore, path, state->kind == RECORD_DIRECTORY))
		return 0;
	row.place = ROW_ON_DISK;
	row.stamp = stamp ? *stamp : was.stamp;
	row.recorded_ns = stamp ? looked_ns : was.recorded_ns;
	r = record_copy(&row.record, stamp ? state : &was.record);
	if (r == 0)
		r = replica_event(s->txn, REPLICA_EVENT_STATE, old, &row.record);
	return r == 0 ? index_put(s->txn->index, path, &row) : r;
}

int settle_copies(
	struct settle *s, const struct intent *i, const struct row *ours, struct place_outcome *o)
{
	int r = 0;

	for (size_t k = 0; r == 0 && k < o->n_copies; k++) {
		struct place_copy *c = &o->copies[k];

		if (!c->known)
			continue;
		r = settle_nodes(s, c->nodes, c->n_nodes);
		if (r == 0)
			r = settle_copy(s, c->path, &c->state, &c->stamp, c->looked_ns);
	}
	if (r != 0 || o->result != APPLY_DONE || !i->aside)
		return r;
	if (i->op == INTENT_PUT_ASIDE)
		return settle_copy(
			s, i->aside, &i->record, i->aside_there ? NULL : &o->stamp, o->looked_ns);
	if (i->fate == INTENT_ASIDE && i->aside_there && ours)
		return settle_copy(s, i->aside, &ours->record, NULL, 0);
	return 0;
}

/* --- the path's row --- */

static int settle_record(
	struct settle *s, const struct intent *i, const struct row *ours, struct row *row)
{
	int r;

	if (i->becomes == INTENT_UNCHANGED)
		return ours ? record_copy(&row->record, &ours->record) : 0;
	assert(i->has_record);
	r = record_copy(&row->record, &i->record);
	if (r == 0 && i->becomes == INTENT_DELETED)
		r = replica_event(s->txn, REPLICA_EVENT_DELETE, &i->record, &row->record);
	return r;
}

int settle_row(struct settle *s, const struct intent *i, const struct row *ours,
	const struct place_outcome *o, const struct chunk_tree_node *nodes, size_t n_nodes)
{
	cleanup(row_deinit) struct row row = {.place = o->place, .source = i->source};
	bool moved = i->op != INTENT_RECORD && i->op != INTENT_PUT_ASIDE;
	int r;

	if (i->becomes == INTENT_UNCHANGED && o->place == ROW_COLLIDES)
		return 0; /* an implied directory that could not be: nothing to remember */
	r = settle_record(s, i, ours, &row);
	if (r != 0)
		return r;
	if (row_has_record(&row) && !row.record.live && row.place != ROW_IMPLIED)
		row.place = ROW_NOT_HERE;
	if (row.place == ROW_ON_DISK || row.place == ROW_IMPLIED) {
		row.stamp = moved ? o->stamp : ours ? ours->stamp : (struct stamp){0};
		row.recorded_ns = moved ? o->looked_ns : ours ? ours->recorded_ns : 0;
	}
	if (row_has_record(&row) && !row.record.live)
		row.since_ns = ours && row_has_record(ours) && !ours->record.live ? ours->since_ns
										  : s->now_ns;
	if (i->becomes == INTENT_UNCHANGED && ours && row_has_record(ours))
		return index_restamp(s->txn->index, i->path, &row);
	r = settle_nodes(s, nodes, n_nodes);
	return r == 0 ? index_put(s->txn->index, i->path, &row) : r;
}

/* --- implied directories --- */

/* 1: gone, 0: it stays. */
static int remove_implied(
	struct settle *s, struct place *p, const char *path, const struct row *row)
{
	cleanup_close int dir = -1;
	struct file_stat st;
	const char *name;
	int r = index_any_live_below(s->txn->index, path);

	if (r != 0)
		return r < 0 ? r : 0;
	r = file_open_parent(store_root(p->store), path, &dir, &name);
	if (r == 0)
		r = file_stat_at(dir, name, &st);
	if (r == 0 && (st.kind != FILE_KIND_DIRECTORY || st.ino != row->stamp.ino))
		return 0; /* not what we made: the scan sees to it */
	if (r == 0)
		r = file_rmdir(dir, name);
	if (r != 0 && r != FILE_VANISHED)
		return 0;
	if (dir >= 0)
		place_touch(p, steal_fd(dir));
	return 1;
}

static int forget_implied(struct settle *s, const char *path, struct row *row)
{
	if (!row_has_record(row))
		return index_drop(s->txn->index, path);
	row->place = ROW_NOT_HERE;
	row->stamp = (struct stamp){0};
	row->recorded_ns = 0;
	return index_restamp(s->txn->index, path, row);
}

int settle_implied(struct settle *s, struct place *p, const char *path)
{
	cleanup_free char *at = strdup(path);
	int r = at ? 0 : -ENOMEM;

	while (r == 0 && *at) {
		cleanup(row_deinit) struct row row = {0};

		r = index_get(s->txn->index, at, &row);
		if (r < 0)
			return r;
		if (r == 0 && row.place == ROW_ON_DISK && row_live(&row) && strcmp(at, path) != 0)
			return 0; /* a directory of its own right */
		if (r == 0 && row.place == ROW_IMPLIED) {
			r = remove_implied(s, p, at, &row);
			if (r <= 0)
				return r;
			r = forget_implied(s, at, &row);
			if (r < 0)
				return r;
		}
		r = 0;
		at[path_parent_length(at)] = '\0';
	}
	return r;
}
