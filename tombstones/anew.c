/* tombstones/anew.c — see tombstones/anew.h. */
#include "tombstones/anew.h"

#include <stdlib.h>

#include "base/error.h"

struct pass {
	struct replica_txn t;
	struct line line; /* that was left */
	struct version_dot point;
	uint64_t records;
};

static bool any_after(const struct pass *p, const struct version_dots *d)
{
	for (size_t i = 0; i < d->n; i++)
		if (line_after(&p->line, p->point, d->v[i], replica_lineage(p->t.replica)))
			return true;
	return false;
}

static void forget_after(const struct pass *p, struct version_dots *d)
{
	size_t kept = 0;

	for (size_t i = 0; i < d->n; i++)
		if (!line_after(&p->line, p->point, d->v[i], replica_lineage(p->t.replica)))
			d->v[kept++] = d->v[i];
	d->n = kept;
}

/* The same values as a new event. */
static int again(struct pass *p, enum replica_event_kind kind, struct record *record)
{
	struct record next = {0};
	int r = record_copy(&next, record);

	if (r == 0)
		r = replica_event(&p->t, kind, record, &next);
	if (r < 0) {
		record_deinit(&next);
		return r;
	}
	record_deinit(record);
	*record = next;
	return 0;
}

static int record_anew(struct pass *p, const char *path, struct row *row)
{
	struct record *record = &row->record;
	bool attributes = any_after(p, &record->adots), mtime = any_after(p, &record->mdots);
	int r = line_cut(&p->line, p->point, &record->vv, replica_lineage(p->t.replica));

	if (r != LINE_CUT)
		return r;
	forget_after(p, &record->lost);
	r = 0;
	if (any_after(p, &record->dots))
		r = again(p, record->live ? REPLICA_EVENT_STATE : REPLICA_EVENT_DELETE, record);
	if (r == 0 && (attributes || mtime))
		r = again(p, !mtime ? REPLICA_EVENT_ATTRIBUTES : !attributes ? REPLICA_EVENT_MTIME : REPLICA_EVENT_BOTH, record);
	row->source = 0;
	if (r == 0)
		r = index_put(p->t.index, path, row);
	p->records++;
	return r;
}

static int each_row(struct pass *p, struct index_cursor *c)
{
	int r = index_cursor_seek(c, "");

	while (r == 0) {
		cleanup_free char *path = NULL;
		struct row row = {0};

		r = index_cursor_get(c, &path, &row);
		if (r == 0 && row_has_record(&row))
			r = record_anew(p, path, &row);
		row_deinit(&row);
		if (r == 0)
			r = index_cursor_next(c);
	}
	return r == INDEX_ABSENT ? 0 : r;
}

static int all_rows(struct pass *p)
{
	struct index_cursor *c;
	int r = replica_turn_back(&p->t, &p->line, &p->point);

	if (r == 0)
		r = index_cursor_open(p->t.index, &c);
	if (r < 0)
		return r;
	r = each_row(p, c);
	index_cursor_close(c);
	return r;
}

int anew_run(struct replica *r, uint64_t *ret_records)
{
	struct pass p = {0};
	int error = 0;

	replica_lock(r);
	if (replica_anew_due(r)) {
		error = replica_begin(r, &p.t);
		if (error == 0) {
			error = all_rows(&p);
			if (error == 0)
				error = replica_commit(&p.t);
			else
				replica_abort(&p.t);
		}
	}
	replica_unlock(r);
	if (error == 0)
		*ret_records = p.records;
	return error;
}
