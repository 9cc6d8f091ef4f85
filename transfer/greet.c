/*
 * transfer/greet.c — OPENING: OPEN, GREET, and whose ids stand (transfer/meeting.h decides; settling them are jobs, as the index
 * is written). Until the peer's HELLO the replica is not joined by this session.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "transfer/meeting.h"
#include "transfer/session_internal.h"

#define GREETINGS_MAX 16 /* of one session, by each side */

int greet_open(struct session *s)
{
	union message m = {.open = s->options.open};

	m.open.version = (char *)SYNCD_VERSION;
	return session_send(s, MESSAGE_OPEN, &m);
}

/* Says what the store holds now, which is what greet_settle() goes by. */
int greet_send(struct session *s)
{
	struct store *store = replica_store(s->replica);
	union message m = {.greet = {
				   .replica = store_replica_id(store),
				   .sends = s->options.sends,
				   .takes = s->options.takes,
				   .policy = (uint8_t)s->options.policy.kind,
				   .prefer = (uint64_t *)s->options.policy.prefer,
				   .n_prefer = s->options.policy.n_prefer,
				   .nonce = s->nonce,
				   .name = (char *)(s->options.name ? s->options.name : ""),
				   .version = (char *)SYNCD_VERSION,
			   }};

	store_folder(store, &m.greet.folder);
	s->folder = m.greet.folder;
	s->own_replica = m.greet.replica;
	s->greet_sent = true;
	return session_send(s, MESSAGE_GREET, &m);
}

/* A clone: the side with the smaller nonce takes a new id, and greets again. */
static int settle_clone(struct session *s)
{
	struct session_job *job;

	if (s->nonce == s->peer_nonce)
		return session_protocol_error(s, "it is this very replica");
	if (s->nonce > s->peer_nonce) {
		s->greeted = false;
		return 0;
	}
	s->renewing = true;
	job = session_job_new(s, JOB_RENEW, SESSION_LANE_APPLY);
	if (!job)
		return -ENOMEM;
	session_job_queue(s, job);
	return 0;
}

static int queue_join(struct session *s, const struct store_folder *now)
{
	struct session_job *job = session_job_new(s, JOB_JOIN, SESSION_LANE_APPLY);

	if (!job)
		return -ENOMEM;
	job->was = s->folder;
	job->now = *now;
	s->joining = true;
	session_job_queue(s, job);
	return 0;
}

static struct store_folder same_folder(const struct session *s, enum store_standing standing)
{
	return (struct store_folder){.id = s->folder.id, .algorithm = s->folder.algorithm, .standing = standing};
}

/* Both have the same id. It counts as offered before we say HELLO. */
static int settled(struct session *s)
{
	struct store_folder now = same_folder(s, STORE_OFFERED);

	if (s->folder.standing == STORE_NEW)
		return queue_join(s, &now);
	s->state = SESSION_PREPARING;
	if (s->options.host.greeted)
		s->options.host.greeted(s, s->rescan, s->options.host.data);
	return 0;
}

/* Both greeted: settle ids, then tell the host. Called again after each step of it. */
int greet_settle(struct session *s)
{
	struct meeting_side ours = {&s->folder, s->options.sends, s->options.takes};
	struct meeting_side theirs = {&s->peer_folder, s->peer_sends, s->peer_takes};
	struct store_folder now;

	if (s->peer_replica == s->own_replica)
		return settle_clone(s);
	if (s->folder.standing != STORE_JOINED || s->peer_folder.standing != STORE_JOINED)
		s->kin = true;
	switch (meeting_decide(&ours, &theirs, s->kin)) {
	case MEETING_SAME:
		return settled(s);
	case MEETING_STAY:
	case MEETING_WAIT:
		s->greeted = false; /* it greets again */
		return 0;
	case MEETING_MOVE:
		now = s->peer_folder;
		now.n_former = 0;
		return queue_join(s, &now);
	case MEETING_OFFER:
		now = same_folder(s, STORE_OFFERED);
		return queue_join(s, &now);
	case MEETING_NOTE:
		now = same_folder(s, s->folder.standing);
		now.former[now.n_former++] = s->peer_folder.id;
		return queue_join(s, &now);
	case MEETING_HASH:
		return session_protocol_error(s, "the same folder with another hash");
	case MEETING_REFUSE:
		break;
	}
	session_fail(s, MESSAGE_FAIL_FOLDER_ID, -EXDEV,
		"the two replicas belong to different folders; if that is meant, remove .syncd/ on the side that is to join");
	return -EXDEV;
}

static int moved_away(struct session *s)
{
	session_fail(s, MESSAGE_FAIL_BUSY, -EBUSY, "this replica has come to another folder id meanwhile: try again");
	return -EBUSY;
}

/* Another session may have taken this replica to another id: only a greeting can go on from there. */
int greet_check_folder(struct session *s)
{
	bool past = s->hello_sent || (s->state != SESSION_OPENING && s->state != SESSION_ENDED);

	return past && !s->joining && store_folder_id(replica_store(s->replica)) != s->folder.id ? moved_away(s) : 0;
}

static int store_refused(int r)
{
	return r < 0 ? r : -ESTALE; /* the root is not what it was */
}

int greet_done_join(struct session *s, struct session_job *job)
{
	bool same = s->folder.id == s->peer_folder.id;
	uint64_t was = s->folder.id;

	s->joining = false;
	s->opening_ns = s->now_ns;
	if (job->error && job->error != STORE_MOVED)
		return store_refused(job->error);
	store_folder(replica_store(s->replica), &s->folder);
	if (s->folder.algorithm != job->was.algorithm)
		s->rescan = true; /* its rows were dropped */
	if (s->folder.id != was && (same || s->hello_sent))
		return moved_away(s); /* the peer does not wait for another GREET, or knows our root under the old id */
	return same ? 0 : greet_send(s);
}

/* The peer's HELLO shows that it holds our id. */
int greet_confirm(struct session *s)
{
	struct store_folder now = same_folder(s, STORE_JOINED);

	return s->joining ? 0 : queue_join(s, &now);
}

int greet_done_renew(struct session *s, int error)
{
	s->renewing = false;
	s->opening_ns = s->now_ns;
	return error ? store_refused(error) : greet_send(s);
}

int greet_handle_open(struct session *s, union message *m)
{
	if (s->options.client || s->opened)
		return session_protocol_error(s, "OPEN out of place");
	s->opened = true;
	if (s->options.host.opened)
		s->options.host.opened(s, &m->open, s->options.host.data);
	return s->failed ? s->error : 0;
}

int greet_handle_greet(struct session *s, union message *m)
{
	struct message_greet *g = &m->greet;
	uint64_t nonces[2];

	if (s->greeted || (!s->options.client && !s->opened) || s->greetings++ == GREETINGS_MAX)
		return session_protocol_error(s, "GREET out of place");
	s->peer_replica = g->replica;
	s->peer_folder = g->folder;
	s->peer_sends = g->sends;
	s->peer_takes = g->takes;
	s->peer_nonce = g->nonce;
	s->policy_differs = g->policy != s->options.policy.kind || g->n_prefer != s->options.policy.n_prefer ||
			    (g->n_prefer && memcmp(g->prefer, s->options.policy.prefer,
						    g->n_prefer * sizeof(*g->prefer)) != 0);
	free(s->peer_name);
	free(s->peer_version);
	s->peer_name = steal(g->name);
	s->peer_version = steal(g->version);
	s->greeted = true;
	if (frame_reader_version(s->reader) >= FRAME_VERSION_CONTEXT)
		frame_writer_share(s->read_writer);
	nonces[0] = s->options.client ? s->nonce : s->peer_nonce;
	nonces[1] = s->options.client ? s->peer_nonce : s->nonce;
	s->seed = hash_fast(nonces, sizeof(nonces), 0);
	return 0;
}
