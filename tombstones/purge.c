/*
 * tombstones/purge.c — see tombstones/purge.h.
 *
 * Candidates are collected in a short read transaction and looked at again under the writer lock
 * before they are dropped: what changed meanwhile is no candidate any more.
 */
#include "tombstones/purge.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/defect.h"
#include "base/error.h"

#define PURGE_BATCH 500	 /* rows dropped in one transaction */
#define PURGE_LOOK 20000 /* rows looked at in one read transaction */

static bool counts(const struct member *m, uint64_t self, const struct purge_policy *policy)
{
	if (m->retired || m->replica == self)
		return false;
	/* a clock that went back makes nobody expire */
	return !policy->member_expiry_ns || policy->now_ns < m->seen_ns ||
	       (uint64_t)policy->now_ns - (uint64_t)m->seen_ns < (uint64_t)policy->member_expiry_ns;
}

bool purge_allowed(const struct record *tombstone, int64_t since_ns, const struct version_vector *k,
	const struct members *members, uint64_t self, const struct purge_policy *policy,
	const struct version_lineage *l)
{
	if (tombstone->live || (!version_vector_leq(&tombstone->vv, k, l) && !DEFECT(PURGE_BY_AGE)))
		return false;
	if (policy->now_ns < since_ns ||
		(uint64_t)policy->now_ns - (uint64_t)since_ns < (uint64_t)policy->grace_ns)
		return false;
	for (size_t i = 0; i < members->n; i++) {
		const struct member *m = &members->v[i];

		if (!DEFECT(PURGE_BY_AGE) && counts(m, self, policy) &&
			(m->excepted || !version_vector_leq(&tombstone->vv, &m->k, l)))
			return false;
	}
	return true;
}

/* --- a pass --- */

struct pass {
	struct replica *replica;
	const struct purge_policy *policy;
	struct members members;
	char *from; /* where the next look starts; "" at first; NULL: the end was reached */
	char *paths[PURGE_BATCH]; /* candidates of this batch, owned */
	size_t n;
	uint64_t purged;
};

static void pass_clear(struct pass *p)
{
	while (p->n)
		free(p->paths[--p->n]);
}

static void pass_deinit(struct pass *p)
{
	pass_clear(p);
	free(p->from);
	members_deinit(&p->members);
}

static bool row_may_go(
	const struct pass *p, const struct knowledge *k, const char *path, const struct row *row)
{
	return row_has_record(row) && !row->record.live &&
	       purge_allowed(&row->record, row->since_ns, knowledge_of(k, path), &p->members,
		       store_replica_id(replica_store(p->replica)), p->policy,
		       replica_lineage(p->replica));
}

/* Look at the row under the cursor, and remember where to go on. */
static int look_at(struct pass *p, const struct knowledge *k, struct index_cursor *c)
{
	cleanup_free char *path = NULL;
	struct row row = {0};
	int r = index_cursor_get(c, &path, &row);

	if (r == 0 && row_may_go(p, k, path, &row))
		p->paths[p->n++] = strdup(path);
	row_deinit(&row);
	if (r != 0)
		return r;
	if (p->n && !p->paths[p->n - 1]) {
		p->n--;
		return -ENOMEM;
	}
	free(p->from);
	p->from = steal(path);
	return 0;
}

static int look_from(struct pass *p, struct index_txn *t, const struct knowledge *k)
{
	struct index_cursor *c;
	struct path_key key;
	struct hash hash;
	bool live;
	int r = index_cursor_open(t, &c);

	if (r < 0)
		return r;
	r = index_cursor_seek(c, p->from); /* p->from itself may be looked at twice: harmless */
	for (size_t looked = 0; r == 0 && looked < PURGE_LOOK && p->n < PURGE_BATCH; looked++) {
		/* live rows are the many: not decoded, but where the look ends */
		if (!index_cursor_peek(c, &key, &hash, &live) || !live || looked + 1 == PURGE_LOOK)
			r = look_at(p, k, c);
		if (r == 0)
			r = index_cursor_next(c);
	}
	index_cursor_close(c);
	if (r == INDEX_ABSENT) {
		free(steal(p->from));
		r = 0;
	}
	return r;
}

static int collect(struct pass *p)
{
	struct knowledge k = {0};
	struct index_txn *t;
	int r = index_begin_read(replica_index(p->replica), &t);

	if (r < 0)
		return r;
	r = replica_knowledge_read(t, &k);
	if (r == 0)
		r = replica_members_read(t, &p->members);
	if (r == 0)
		r = look_from(p, t, &k);
	knowledge_deinit(&k);
	index_abort(t);
	return r;
}

/* A directory that is there for what is below it keeps its row, which has no record then: with the last of that it goes. */
static int drop_record(struct index_txn *w, const char *path, struct row *row)
{
	int r = index_drop(w, path);

	if (r != 0 || row->place != ROW_IMPLIED)
		return r;
	record_deinit(&row->record);
	row->record = (struct record){0};
	return index_put(w, path, row);
}

static int drop_one(struct pass *p, struct replica_txn *t, const char *path, uint64_t *dropped)
{
	struct row row = {0};
	int r = index_get(t->index, path, &row);

	if (r == 0 && row_may_go(p, &t->knowledge, path, &row)) {
		r = drop_record(t->index, path, &row);
		if (r == 0)
			(*dropped)++;
	}
	row_deinit(&row);
	return r == INDEX_ABSENT ? 0 : r;
}

static int drop_batch(struct pass *p)
{
	struct replica_txn t = {0};
	uint64_t dropped = 0;
	int r;

	replica_lock(p->replica);
	r = replica_begin(p->replica, &t);
	if (r == 0) {
		members_deinit(&p->members); /* a member may have joined since */
		r = replica_members_read(t.index, &p->members);
		for (size_t i = 0; r == 0 && i < p->n; i++)
			r = drop_one(p, &t, p->paths[i], &dropped);
		if (r == 0)
			r = replica_commit(&t);
		else
			replica_abort(&t);
	}
	replica_unlock(p->replica);
	if (r == 0)
		p->purged += dropped;
	return r;
}

int purge_run(struct replica *r, const struct purge_policy *policy, uint64_t *ret_purged)
{
	struct pass p = {.replica = r, .policy = policy, .from = strdup("")};
	int e = p.from ? 0 : -ENOMEM;

	while (e == 0 && p.from) {
		members_deinit(&p.members);
		e = collect(&p);
		if (e == 0 && p.n)
			e = drop_batch(&p);
		pass_clear(&p);
	}
	pass_deinit(&p);
	if (e == 0)
		*ret_purged = p.purged;
	return e;
}
