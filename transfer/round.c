/*
 * transfer/round.c — a round, from HELLO to DONE, and what begins the next one. Invariants:
 *   – K of the peer's HELLO is joined only after every path of the round was dealt with or is in `skipped`
 *   – a message that carries versions goes out only after the lineage it uses
 *   – rows are decided on only after all lineage received before them is stored
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/defect.h"
#include "base/error.h"
#include "tombstones/anew.h"
#include "transfer/session_internal.h"

#define LINEAGE_JOBS_MAX 1024 /* LINEAGE messages not yet stored */

/* --- lineage --- */

/* Of the first n entries, whatever their order. */
static uint64_t lineage_digest(const struct version_lineage *l, size_t n)
{
	uint64_t sum = 0;

	for (size_t i = 0; i < n; i++) {
		const struct version_incarnation *in = version_lineage_at(l, i);
		uint64_t words[4] = {in->inc, in->parent, in->from, in->replica};

		sum += hash_fast(words, sizeof(words), 0);
	}
	return sum;
}

int round_send_lineage(struct session *s, bool last)
{
	const struct version_lineage *l = replica_lineage(s->replica);
	size_t count = version_lineage_count(l);
	int r = 0;

	if (s->lineage_sent == count && !last)
		return 0;
	do {
		struct version_incarnation batch[512];
		union message m = {.lineage = {.v = batch}};

		while (s->lineage_sent < count && m.lineage.n < ARRAY_SIZE(batch))
			batch[m.lineage.n++] = *version_lineage_at(l, s->lineage_sent++);
		m.lineage.last = last && s->lineage_sent == count;
		r = session_send(s, MESSAGE_LINEAGE, &m);
	} while (r == 0 && s->lineage_sent < count);
	return r;
}

int round_handle_lineage(struct session *s, union message *m)
{
	struct session_job *job;

	if (!s->greeted)
		return session_protocol_error(s, "LINEAGE out of place");
	if (m->lineage.last)
		s->lineage_last = true;
	if (!m->lineage.n)
		return 0;
	if (s->lineage_jobs >= LINEAGE_JOBS_MAX)
		return session_protocol_error(s, "lineage without end");
	job = session_job_new(s, JOB_LINEAGE, SESSION_LANE_APPLY);
	if (!job)
		return -ENOMEM;
	job->lineage = *m;
	job->ahead = !s->hello_received && s->round <= 1;
	memset(m, 0, sizeof(*m));
	s->lineage_jobs++;
	session_job_queue(s, job);
	return 0;
}

/* --- rounds --- */

static int read_root(struct session *s, struct hash *ret)
{
	struct index_txn *t = NULL;
	int r = index_begin_read(replica_index(s->replica), &t);

	if (r < 0)
		return r;
	r = tree_root(t, TREE_LIVE, ret);
	index_abort(t);
	return r;
}

int round_fill_hello(struct session *s, struct index_txn *t, size_t n_lineage, struct message_hello *h, uint64_t *ret_seq)
{
	struct index_counts counts = {0};
	int r = tree_root(t, TREE_LIVE, &h->root);

	if (r == 0)
		r = index_counts(t, &counts);
	if (r == 0 && s->options.sends)
		r = replica_knowledge_read(t, &h->knowledge);
	h->has_knowledge = s->options.sends;
	h->live = counts.live;
	h->lineage_digest = lineage_digest(replica_lineage(s->replica), n_lineage);
	h->ignore_digest = s->ignore ? ignore_digest(s->ignore) : 0;
	h->own = replica_own(s->replica);
	*ret_seq = counts.head_seq;
	return r;
}

void round_said_hello(struct session *s, const struct message_hello *h, uint64_t seq)
{
	s->hello_seq = seq;
	s->lineage_digest = h->lineage_digest;
	s->root = h->root;
	s->live = h->live;
	s->hello_sent = true;
}

static uint64_t count_unread(struct session *s)
{
	return s->options.host.unread ? s->options.host.unread(s, s->options.host.data) : 0;
}

struct message_hello round_hello(struct session *s)
{
	return (struct message_hello){
		.round = s->round,
		.held = s->options.host.held ? s->options.host.held(s, s->options.host.data) : 0,
		.unread = frame_reader_version(s->reader) >= FRAME_VERSION_UNREAD ? count_unread(s) : 0,
	};
}

int round_send_hello(struct session *s)
{
	struct index_txn *t = NULL;
	union message m = {.hello = round_hello(s)};
	uint64_t seq = 0;
	int r = index_begin_read(replica_index(s->replica), &t);

	if (r < 0)
		return r;
	s->lineage_shown = version_lineage_count(replica_lineage(s->replica)); /* others may add to it at any time */
	r = round_fill_hello(s, t, s->lineage_shown, &m.hello, &seq);
	index_abort(t);
	/* In the first round what the peer lacks is sent once the digests are known to differ. */
	if (r == 0 && s->round > 1)
		r = round_send_lineage(s, false);
	if (r == 0)
		r = session_send(s, MESSAGE_HELLO, &m);
	round_said_hello(s, &m.hello, seq);
	knowledge_deinit(&m.hello.knowledge);
	return r;
}

int round_say_hello(struct session *s)
{
	s->forgotten = replica_forgotten(s->replica);
	return push_possible(s) ? push_begin(s) : round_send_hello(s);
}

void round_forget_skipped(struct session *s)
{
	for (size_t i = 0; i < s->n_skipped; i++)
		free(s->skipped[i]);
	s->n_skipped = 0;
	s->skipped_overflow = false;
	s->skipped_count = s->held_count = s->full_count = 0;
}

int round_start(struct session *s)
{
	s->state = SESSION_ROUND;
	s->round++;
	s->hello_sent = s->compared = s->equal = s->walked = s->walk_sent = s->walk_received = false;
	s->deferred_flushed = s->learning = s->learned = s->done_sent = s->done_received = false;
	s->lineage_wanted = s->deferred_overflow = false;
	s->deferred_deletes = 0;
	s->local_changed = s->progress = s->stuck = false;
	s->differing = 0;
	s->content_before = s->content_in;
	round_forget_skipped(s);
	compare_reset(s);
	return s->push ? 0 : round_say_hello(s);
}

static int check_hello(struct session *s, const struct message_hello *h)
{
	bool next = s->round == 0 || s->state == SESSION_LIVE; /* our own of this round is still to be said */

	/* The HELLO that a client says early may come between the two GREETs of a clone. */
	if (s->hello_received || h->round != s->round + next || (!s->greeted && !s->peer_name))
		return session_protocol_error(s, "HELLO out of place");
	return 0;
}

static int take_hello(struct session *s, struct message_hello *h)
{
	s->hello_received = true;
	s->peer_root = h->root;
	s->peer_live = h->live;
	s->peer_disk_held = h->held;
	s->peer_skipped = h->unread;
	s->peer_lineage_digest = h->lineage_digest;
	s->ignore_differs = s->ignore ? h->ignore_digest != ignore_digest(s->ignore) : h->ignore_digest != 0;
	knowledge_deinit(&s->peer_knowledge);
	s->peer_has_knowledge = h->has_knowledge;
	s->peer_knowledge = h->knowledge;
	memset(&h->knowledge, 0, sizeof(h->knowledge));
	if (s->state == SESSION_LIVE)
		return round_start(s); /* resets the round's flags but hello_received */
	return 0;
}

int round_handle_hello(struct session *s, union message *m)
{
	int r = check_hello(s, &m->hello);

	return r == 0 ? take_hello(s, &m->hello) : r;
}

int round_handle_push(struct session *s, union message *m)
{
	int r = check_hello(s, &m->push.hello);

	if (r < 0)
		return r;
	if (frame_reader_version(s->reader) < (m->push.hello.round > 1 ? FRAME_VERSION_PUSH : FRAME_VERSION_FIRST))
		return session_protocol_error(s, "a PUSH, of which this version knows nothing");
	push_take(s, &m->push);
	return take_hello(s, &m->push.hello);
}

bool round_knowledge_known(const struct session *s)
{
	const struct version_lineage *l = replica_lineage(s->replica);

	if (!version_vector_known(&s->peer_knowledge.k, l))
		return false;
	for (size_t i = 0; i < s->peer_knowledge.n; i++)
		if (!version_vector_known(&s->peer_knowledge.exceptions[i].vector, l))
			return false;
	return true;
}

/* What a peer knows goes through here before anything is decided by it; its lineage is stored. */
int round_hear(struct session *s, const struct version_vector *v)
{
	int r = replica_hear(s->replica, s->peer_replica, v);

	if (r != REPLICA_RESTORED)
		return r;
	session_fail(s, MESSAGE_FAIL_HALTED, -ESTALE,
		"the peer has seen more of this replica than it counted itself: its state was restored while it ran; "
		"what it recorded since is recorded anew: connect again");
	return -ESTALE;
}

int round_begin_taking(struct session *s)
{
	struct index_txn *t = NULL;
	struct index_counts counts = {0};
	int r = index_begin_read(replica_index(s->replica), &t);

	if (r == 0)
		r = index_counts(t, &counts);
	index_abort(t);
	s->head_seq = counts.head_seq;
	if (r == 0 && !s->taking) {
		replica_round_begins(s->replica);
		s->taking = true;
	}
	return r;
}

void round_end_taking(struct session *s)
{
	if (!s->taking)
		return;
	s->taking = false;
	if (replica_round_over(s->replica) && s->options.host.changed)
		s->options.host.changed(s, s->options.host.data);
}

/* Both HELLOs are there: exchange lineage where it differs, then compare. */
static int begin_comparison(struct session *s)
{
	int r;

	if (s->folder.standing != STORE_JOINED)
		return greet_confirm(s);
	if (!s->lineage_wanted && s->lineage_digest != s->peer_lineage_digest) {
		s->lineage_wanted = true;
		r = round_send_lineage(s, true);
		if (r < 0)
			return r;
	}
	if (s->lineage_jobs || (s->lineage_wanted && !s->lineage_last))
		return 0;
	s->lineage_last = false;
	if (!s->lineage_wanted && s->round == 1)
		s->lineage_sent = s->lineage_shown;
	if (!round_knowledge_known(s))
		return session_protocol_error(s, "it knows of an incarnation that it did not introduce");
	r = round_hear(s, &s->peer_knowledge.k);
	if (r < 0)
		return r;
	s->compared = true;
	s->equal = hash_equal(&s->root, &s->peer_root) || (s->fed && DEFECT(PUSH_IS_ALL));
	if (s->equal) {
		s->walked = true;
		return 0;
	}
	r = round_begin_taking(s);
	return r == 0 ? compare_begin(s) : r;
}

static int queue_learn(struct session *s)
{
	struct session_job *job = session_job_new(s, JOB_LEARN, SESSION_LANE_APPLY);
	int r;

	if (!job)
		return -ENOMEM;
	job->learn = session_we_take(s) && s->peer_has_knowledge && !s->skipped_overflow && !s->deferred_overflow;
	r = knowledge_copy(&job->peer_knowledge, &s->peer_knowledge);
	if (r < 0) {
		session_job_free(job);
		return r;
	}
	job->forgotten = s->forgotten;
	job->skipped = s->skipped;
	job->n_skipped = s->n_skipped;
	s->learning = true;
	session_job_queue(s, job);
	return 0;
}

static int send_done(struct session *s)
{
	struct index_txn *t = NULL;
	struct index_counts counts = {0};
	struct knowledge k = {0};
	union message m = {.done = {
		.round = s->round,
		.skipped = s->skipped_count + count_unread(s),
		.held = s->held_count,
		.full = s->full_count,
	}};
	int r = index_begin_read(replica_index(s->replica), &t);

	if (r < 0)
		return r;
	r = tree_root(t, TREE_LIVE, &m.done.root);
	if (r == 0)
		r = replica_knowledge_read(t, &k);
	if (r == 0)
		r = index_counts(t, &counts);
	index_abort(t);
	s->done_seq = counts.head_seq;
	m.done.k = k.k;
	m.done.excepted = k.n > 0;
	s->done_root = m.done.root;
	if (r == 0)
		r = round_send_lineage(s, false);
	if (r == 0)
		r = session_send(s, MESSAGE_DONE, &m);
	knowledge_deinit(&k);
	s->done_sent = true;
	return r;
}

int round_handle_done(struct session *s, union message *m)
{
	if (s->bye_sent)
		return 0; /* equal from the start, we did not wait for it */
	if (s->state != SESSION_ROUND || s->done_received || m->done.round != s->round || !s->hello_received)
		return session_protocol_error(s, "DONE out of place");
	s->done_received = true;
	s->peer_done_root = m->done.root;
	s->peer_skipped = m->done.skipped;
	s->peer_held = m->done.held;
	s->peer_full = m->done.full;
	return round_hear(s, &m->done.k);
}

static bool takes_all(const struct session *s, bool moved)
{
	return session_we_take(s) && !session_we_send(s) && !moved && !s->differing && !s->skipped_count;
}

static int end_round(struct session *s)
{
	bool moved = s->round == 1 || !hash_equal(&s->done_root, &s->last_root) ||
		     !hash_equal(&s->peer_done_root, &s->last_peer_root) || s->progress;
	bool alike = hash_equal(&s->done_root, &s->peer_done_root);
	int r = 0;

	s->state = SESSION_LIVE;
	if (session_we_take(s) && !session_we_send(s))
		s->differences = s->differing;
	s->fed = s->equal || alike;
	s->fed_seq = alike ? s->done_seq : s->hello_seq;
	s->in_sync = alike || takes_all(s, moved);
	s->stuck = !s->in_sync && !moved;
	s->last_root = s->done_root;
	s->last_peer_root = s->peer_done_root;
	s->hello_received = false;
	if (s->confirmed_until && s->round >= s->confirmed_until) {
		s->options.confirmed = false;
		s->confirmed_until = 0;
	}
	if (s->options.host.round_over)
		s->options.host.round_over(s, s->in_sync, s->options.host.data);
	if (s->state != SESSION_LIVE)
		return 0;
	if (s->options.client && !s->options.live &&
			(s->in_sync || s->stuck || s->round >= SESSION_ROUNDS_MAX))
		s->finishing = true;
	if (s->finishing)
		r = session_bye(s);
	else if (!s->in_sync && moved && s->equal)
		s->local_changed = s->local_changed || !hash_equal(&s->done_root, &s->root); /* another round; who has news begins it */
	else if (!s->in_sync && moved && (s->round > 1 || s->options.client))
		s->local_changed = true; /* another round; the client begins it, so that the two do not cross */
	return r;
}

int round_step(struct session *s)
{
	int r = s->push ? push_step(s) : 0;

	if (r == 0 && s->hello_sent && s->hello_received && !s->push && !s->compared)
		r = begin_comparison(s);
	if (r == 0 && s->compared)
		r = compare_pump(s);
	if (r == 0 && s->compared)
		r = fetch_pump(s);
	if (r == 0 && s->compared && s->walked && !s->deferred_flushed && compare_idle(s) && fetch_idle(s)) {
		s->deferred_flushed = true;
		r = fetch_flush_deferred(s);
	}
	if (r == 0 && s->deferred_flushed && !s->learning && compare_idle(s) && fetch_idle(s))
		r = queue_learn(s);
	if (r == 0 && s->learned && !s->done_sent)
		r = send_done(s);
	if (r == 0 && s->done_sent && s->equal && s->options.client && !s->options.live && !s->done_received &&
			frame_reader_version(s->reader) >= FRAME_VERSION_UNREAD && s->peer_folder.standing == STORE_JOINED &&
			hash_equal(&s->done_root, &s->peer_root)) {
		/* One-shot, equal from the start and still so: the peer's DONE would only repeat what its HELLO said. */
		s->done_received = true;
		s->peer_done_root = s->peer_root;
	}
	if (r == 0 && s->done_sent && s->done_received)
		r = end_round(s);
	return r;
}

/* Before our first HELLO: K must not name what two pasts of ours counted. */
int round_record_anew(struct session *s, bool *ret_wait)
{
	struct session_job *job;

	*ret_wait = s->recording_anew || replica_anew_due(s->replica);
	if (!*ret_wait || s->recording_anew)
		return 0;
	job = session_job_new(s, JOB_ANEW, SESSION_LANE_APPLY);
	if (!job)
		return -ENOMEM;
	s->recording_anew = true;
	session_job_queue(s, job);
	return 0;
}

int round_live_step(struct session *s)
{
	struct hash root;
	int r;

	if (!s->local_changed || s->bye_sent)
		return 0;
	r = read_root(s, &root);
	if (r < 0)
		return r;
	s->local_changed = false;
	if (s->in_sync && hash_equal(&root, &s->last_root))
		return 0;
	return round_start(s);
}

int round_handle_walked(struct session *s, union message *m)
{
	if (m->walked.round != s->round || s->walk_received || !s->hello_received || compare_we_walk(s) ||
			hash_equal(&s->root, &s->peer_root))
		return session_protocol_error(s, "WALKED out of place");
	s->walk_received = true;
	s->walked = true;
	return 0;
}
