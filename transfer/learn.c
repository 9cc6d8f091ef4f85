/* transfer/learn.c — what a round leaves in the index, on the apply lane: lineage, K, and who was met where. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/error.h"
#include "tombstones/places.h"
#include "transfer/session_internal.h"

#define MEMBER_SEEN_NS (INT64_C(3600) * CLOCK_NS_PER_S) /* a peer's last-seen time is kept to this precision */

/* What was told before we were asked: the peer may take us for one that knows more than we do (an older copy of our disk, say). What
 * such entries descend from is told with all others then. */
static void keep_known(const struct version_lineage *l, struct message_lineage *m)
{
	size_t kept = 0;

	for (size_t i = 0; i < m->n; i++) {
		uint64_t parent = m->v[i].parent;
		bool known = !parent || version_lineage_find(l, parent);

		for (size_t j = 0; j < kept && !known; j++)
			known = m->v[j].inc == parent;
		if (known)
			m->v[kept++] = m->v[i];
	}
	m->n = kept;
}

void learn_run_lineage(struct session_job *job)
{
	struct replica *replica = job->session->replica;
	struct replica_txn t;

	if (job->ahead)
		keep_known(replica_lineage(replica), &job->lineage.lineage);
	replica_lock(replica);
	job->error = replica_begin(replica, &t);
	if (job->error == 0) {
		job->error = replica_learn_lineage(&t, job->lineage.lineage.v, job->lineage.lineage.n);
		if (job->error == 0)
			job->error = replica_commit(&t);
		else
			replica_abort(&t);
	}
	replica_unlock(replica);
}

static int note_member(struct session_job *job, struct replica_txn *t)
{
	struct session *s = job->session;
	struct members members = {0};
	struct member *member;
	int r;

	r = replica_members_read(t->index, &members);
	if (r == 0)
		r = members_add(&members, s->peer_replica, &member);
	if (r == 0) {
		member->seen_ns = clock_wall_ns();
		if (!member->name || strcmp(member->name, s->peer_name) != 0) {
			free(member->name);
			member->name = strdup(s->peer_name);
		}
		if (job->peer_knowledge.k.n) {
			member->excepted = job->peer_knowledge.n > 0;
			r = version_vector_copy(&member->k, &job->peer_knowledge.k);
		}
	}
	if (r == 0)
		r = replica_members_write(t, &members);
	members_deinit(&members);
	return r;
}

static int note_place(struct session *s, struct replica_txn *t)
{
	struct places places = {0};
	int r;

	if (!s->options.address)
		return 0;
	r = places_read(t->index, &places);
	if (r == 0)
		r = places_note(&places, s->options.address, s->peer_replica, clock_wall_ns(), s->hello_seq);
	if (r == 0)
		r = places_write(t->index, &places);
	places_deinit(&places);
	return r;
}

/* Is it remembered that the peer was met at its address? */
static int place_is_noted(struct session *s, struct index_txn *t, bool *ret)
{
	struct places places = {0};
	const struct place_met *met;
	int r = 0;

	*ret = true;
	if (!s->options.address)
		return 0;
	r = places_read(t, &places);
	if (r < 0)
		return r;
	met = places_find(&places, s->options.address);
	*ret = met && met->replica == s->peer_replica;
	places_deinit(&places);
	return 0;
}

/* Would joining change anything? A no-op exchange must cost no commit. */
static int learn_needed(struct session_job *job, bool *ret)
{
	struct session *s = job->session;
	struct index_txn *t = NULL;
	struct knowledge k = {0};
	struct members members = {0};
	struct member *member;
	bool noted = true;
	int r = index_begin_read(replica_index(s->replica), &t);

	if (r < 0)
		return r;
	r = replica_knowledge_read(t, &k);
	if (r == 0)
		r = replica_members_read(t, &members);
	if (r == 0)
		r = place_is_noted(s, t, &noted);
	index_abort(t);
	if (r == 0) {
		member = members_find(&members, s->peer_replica);
		*ret = !member || !noted || job->n_skipped || clock_wall_ns() - member->seen_ns > MEMBER_SEEN_NS ||
		       (job->peer_knowledge.k.n && (!version_vector_equal(&member->k, &job->peer_knowledge.k) ||
							   member->excepted != (job->peer_knowledge.n > 0))) ||
		       (job->learn && (k.n || job->peer_knowledge.n ||
					      !version_vector_leq(&job->peer_knowledge.k, &k.k, replica_lineage(s->replica))));
	}
	members_deinit(&members);
	knowledge_deinit(&k);
	return r;
}

void learn_run(struct session_job *job)
{
	struct session *s = job->session;
	struct replica_txn t;
	bool needed = false;

	job->error = learn_needed(job, &needed);
	if (job->error < 0 || !needed)
		return;
	replica_lock(s->replica);
	job->error = replica_begin(s->replica, &t);
	if (job->error == 0) {
		job->stale = job->learn && replica_forgotten(s->replica) != job->forgotten;
		if (job->learn && !job->stale) {
			int r = knowledge_learn(&t.knowledge, &job->peer_knowledge, (const char *const *)job->skipped,
				job->n_skipped, t.own, replica_lineage(s->replica));

			t.knowledge_dirty = true;
			job->full = r == KNOWLEDGE_FULL;
			job->error = r < 0 ? r : 0;
		}
		if (job->error == 0)
			job->error = note_member(job, &t);
		if (job->error == 0)
			job->error = note_place(s, &t);
		if (job->error == 0)
			job->error = replica_commit(&t);
		else
			replica_abort(&t);
	}
	replica_unlock(s->replica);
}
