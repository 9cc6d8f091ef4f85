/*
 * transfer/session.c — handshake, rounds and dispatch of a session.
 *
 *   OPENING ──GREET both ways──▶ PREPARING ──session_ready──▶ ROUND n ──both DONE──▶ LIVE ──a change, or HELLO n+1──▶ ROUND n+1
 *
 * Everything that may be possible now is tried by session_step(), after each input, job and call: flags say what has
 * happened, and each step acts once when its flags are all there. Invariants:
 *   – K of the peer's HELLO is joined only after every path of the round was dealt with or is in `skipped`
 *   – a message that carries versions goes out only after the lineage it uses
 *   – rows are decided on only after all lineage received before them is stored
 */
#include "transfer/session.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/log.h"
#include "base/random.h"
#include "tombstones/anew.h"
#include "tombstones/places.h"
#include "transfer/meeting.h"
#include "transfer/session_internal.h"

#define ZSTD_LEVEL 3
#define GREETINGS_MAX 16 /* of one session, by each side */
#define LINEAGE_JOBS_MAX 1024 /* LINEAGE messages not yet stored */
#define OUTPUT_MAX ((size_t)512 * 1024 * 1024) /* answers that the peer asks for and does not read */
#define MEMBER_SEEN_NS (INT64_C(3600) * CLOCK_NS_PER_S) /* a peer's last-seen time is kept to this precision */

/* --- small things --- */

bool session_we_send(const struct session *s)
{
	return s->options.sends && s->peer_takes;
}

bool session_we_take(const struct session *s)
{
	return s->options.takes && s->peer_sends;
}

int session_protocol_error(struct session *s, const char *why)
{
	if (!s->text[0])
		snprintf(s->text, sizeof(s->text), "the peer broke the protocol: %s", why);
	return -EBADMSG;
}

int session_send(struct session *s, uint8_t type, const union message *m)
{
	const struct message_info *info = message_info(type);
	struct buf payload = BUF_INIT;
	int r;

	if (s->out.len - s->out_at > OUTPUT_MAX)
		return session_protocol_error(s, "it asks and does not read the answers");
	r = message_encode(type, m, &payload);
	if (r == 0 && payload.len > info->max_bytes)
		r = -EMSGSIZE;
	if (r == 0)
		r = frame_write(s->writer, &s->out, type, payload.data, payload.len, info->compress);
	buf_deinit(&payload);
	s->last_out_ns = s->now_ns;
	return r;
}

struct session_job *session_job_new(struct session *s, enum job_type type, enum session_lane lane)
{
	struct session_job *job = calloc(1, sizeof(*job));

	if (job) {
		job->type = type;
		job->lane = lane;
		job->session = s;
	}
	return job;
}

void session_job_queue(struct session *s, struct session_job *job)
{
	*s->queue_tail[job->lane] = job;
	s->queue_tail[job->lane] = &job->next;
}

static void job_free(struct session_job *job)
{
	if (!job)
		return;
	message_deinit(MESSAGE_LINEAGE, &job->lineage);
	knowledge_deinit(&job->peer_knowledge);
	while (job->ops) {
		struct stage_op *op = job->ops;

		job->ops = op->next;
		free(op->entries);
		free(op->bytes);
		free(op);
	}
	if (job->request) {
		free(job->request->request.path);
		free(job->request->request.v);
		free(job->request);
	}
	buf_deinit(&job->data);
	free(job);
}

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

int session_send_lineage(struct session *s, bool last)
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

/* --- handshake --- */

static int send_open(struct session *s)
{
	union message m = {.open = s->options.open};

	m.open.version = (char *)SYNCD_VERSION;
	return session_send(s, MESSAGE_OPEN, &m);
}

/* Says what the store holds now, which is what settle() goes by. */
static int send_greet(struct session *s)
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
static int settle(struct session *s)
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
static int check_folder(struct session *s)
{
	bool past = s->hello_sent || (s->state != SESSION_OPENING && s->state != SESSION_ENDED);

	return past && !s->joining && store_folder_id(replica_store(s->replica)) != s->folder.id ? moved_away(s) : 0;
}

static int store_refused(int r)
{
	return r < 0 ? r : -ESTALE; /* the root is not what it was */
}

static int done_join(struct session *s, struct session_job *job)
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
	return same ? 0 : send_greet(s);
}

static int handle_open(struct session *s, union message *m)
{
	if (s->options.client || s->opened)
		return session_protocol_error(s, "OPEN out of place");
	s->opened = true;
	if (s->options.host.opened)
		s->options.host.opened(s, &m->open, s->options.host.data);
	return s->failed ? s->error : 0;
}

static int handle_greet(struct session *s, union message *m)
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
	nonces[0] = s->options.client ? s->nonce : s->peer_nonce;
	nonces[1] = s->options.client ? s->peer_nonce : s->nonce;
	s->seed = hash_fast(nonces, sizeof(nonces), 0);
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

static int send_hello(struct session *s)
{
	struct index_txn *t = NULL;
	struct index_counts counts = {0};
	union message m = {0};
	struct message_hello *h = &m.hello;
	int r;

	s->forgotten = replica_forgotten(s->replica);
	r = index_begin_read(replica_index(s->replica), &t);
	if (r < 0)
		return r;
	r = tree_root(t, TREE_LIVE, &h->root);
	if (r == 0)
		r = index_counts(t, &counts);
	if (r == 0 && s->options.sends)
		r = replica_knowledge_read(t, &h->knowledge);
	index_abort(t);
	h->has_knowledge = s->options.sends;
	h->round = s->round;
	h->live = counts.live;
	s->lineage_shown = version_lineage_count(replica_lineage(s->replica)); /* others may add to it at any time */
	h->lineage_digest = lineage_digest(replica_lineage(s->replica), s->lineage_shown);
	h->ignore_digest = s->ignore ? ignore_digest(s->ignore) : 0;
	h->own = replica_own(s->replica);
	if (s->options.host.held)
		h->held = s->options.host.held(s, s->options.host.data);
	s->lineage_digest = h->lineage_digest;
	s->root = h->root;
	s->live = counts.live;
	/* In the first round what the peer lacks is sent once the digests are known to differ. */
	if (r == 0 && s->round > 1)
		r = session_send_lineage(s, false);
	if (r == 0)
		r = session_send(s, MESSAGE_HELLO, &m);
	knowledge_deinit(&h->knowledge);
	s->hello_sent = true;
	return r;
}

static void forget_skipped(struct session *s)
{
	for (size_t i = 0; i < s->n_skipped; i++)
		free(s->skipped[i]);
	s->n_skipped = 0;
	s->skipped_overflow = false;
	s->skipped_count = s->held_count = s->full_count = 0;
}

static int start_round(struct session *s)
{
	s->state = SESSION_ROUND;
	s->round++;
	s->hello_sent = s->compared = s->equal = s->walked = s->walk_sent = s->walk_received = false;
	s->deferred_flushed = s->learning = s->learned = s->done_sent = s->done_received = false;
	s->lineage_wanted = s->deferred_overflow = false;
	s->deferred_deletes = 0;
	s->local_changed = s->progress = s->stuck = false;
	s->differing = 0;
	forget_skipped(s);
	compare_reset(s);
	return send_hello(s);
}

static int handle_hello(struct session *s, union message *m)
{
	struct message_hello *h = &m->hello;
	bool next = s->round == 0 || s->state == SESSION_LIVE; /* our own of this round is still to be said */

	/* The HELLO that a client says early may come between the two GREETs of a clone. */
	if (s->hello_received || h->round != s->round + next || (!s->greeted && !s->peer_name))
		return session_protocol_error(s, "HELLO out of place");
	s->hello_received = true;
	s->peer_root = h->root;
	s->peer_disk_held = h->held;
	s->peer_lineage_digest = h->lineage_digest;
	s->ignore_differs = s->ignore ? h->ignore_digest != ignore_digest(s->ignore) : h->ignore_digest != 0;
	knowledge_deinit(&s->peer_knowledge);
	s->peer_has_knowledge = h->has_knowledge;
	s->peer_knowledge = h->knowledge;
	memset(&h->knowledge, 0, sizeof(h->knowledge));
	if (s->state == SESSION_LIVE)
		return start_round(s); /* resets the round's flags but hello_received */
	return 0;
}

static bool knowledge_known(const struct session *s)
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
int session_hear(struct session *s, const struct version_vector *v)
{
	int r = replica_hear(s->replica, s->peer_replica, v);

	if (r != REPLICA_RESTORED)
		return r;
	session_fail(s, MESSAGE_FAIL_HALTED, -ESTALE,
		"the peer has seen more of this replica than it counted itself: its state was restored while it ran; "
		"what it recorded since is recorded anew: connect again");
	return -ESTALE;
}

/* Both HELLOs are there: exchange lineage where it differs, then compare. */
static int begin_comparison(struct session *s)
{
	struct store_folder now = same_folder(s, STORE_JOINED);
	int r;

	if (s->folder.standing != STORE_JOINED) /* its HELLO shows that it holds our id */
		return s->joining ? 0 : queue_join(s, &now);
	if (!s->lineage_wanted && s->lineage_digest != s->peer_lineage_digest) {
		s->lineage_wanted = true;
		r = session_send_lineage(s, true);
		if (r < 0)
			return r;
	}
	if (s->lineage_jobs || (s->lineage_wanted && !s->lineage_last))
		return 0;
	s->lineage_last = false;
	if (!s->lineage_wanted && s->round == 1)
		s->lineage_sent = s->lineage_shown;
	if (!knowledge_known(s))
		return session_protocol_error(s, "it knows of an incarnation that it did not introduce");
	r = session_hear(s, &s->peer_knowledge.k);
	if (r < 0)
		return r;
	s->compared = true;
	s->equal = hash_equal(&s->root, &s->peer_root);
	if (s->equal) {
		s->walked = true;
		return 0;
	}
	return compare_begin(s);
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
		job_free(job);
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
	struct knowledge k = {0};
	union message m = {.done = {.round = s->round, .skipped = s->skipped_count, .held = s->held_count, .full = s->full_count}};
	int r;

	r = index_begin_read(replica_index(s->replica), &t);
	if (r < 0)
		return r;
	r = tree_root(t, TREE_LIVE, &m.done.root);
	if (r == 0)
		r = replica_knowledge_read(t, &k);
	index_abort(t);
	m.done.k = k.k;
	m.done.excepted = k.n > 0;
	s->done_root = m.done.root;
	if (r == 0)
		r = session_send_lineage(s, false);
	if (r == 0)
		r = session_send(s, MESSAGE_DONE, &m);
	knowledge_deinit(&k);
	s->done_sent = true;
	return r;
}

static int handle_done(struct session *s, union message *m)
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
	return session_hear(s, &m->done.k);
}

static int send_bye(struct session *s)
{
	union message m = {0};

	if (s->bye_sent)
		return 0;
	s->bye_sent = true;
	return session_send(s, MESSAGE_BYE, &m);
}

/* A side that only takes may be ahead by its records, and yet show all that the peer has, and nothing else. */
static bool takes_all(const struct session *s, bool moved)
{
	return session_we_take(s) && !session_we_send(s) && !moved && !s->differing && !s->skipped_count;
}

static int end_round(struct session *s)
{
	bool moved = s->round == 1 || !hash_equal(&s->done_root, &s->last_root) ||
		     !hash_equal(&s->peer_done_root, &s->last_peer_root) || s->progress;
	int r = 0;

	s->state = SESSION_LIVE;
	if (session_we_take(s) && !session_we_send(s))
		s->differences = s->differing;
	s->in_sync = hash_equal(&s->done_root, &s->peer_done_root) || takes_all(s, moved);
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
		r = send_bye(s);
	else if (!s->in_sync && moved && (s->round > 1 || s->options.client))
		s->local_changed = true; /* another round; the client begins it, so that the two do not cross */
	return r;
}

static int round_step(struct session *s)
{
	int r = 0;

	if (s->hello_sent && s->hello_received && !s->compared)
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
			s->peer_folder.standing == STORE_JOINED && hash_equal(&s->done_root, &s->peer_root)) {
		/* One-shot, equal from the start and still so: the peer's DONE would only repeat its root. */
		s->done_received = true;
		s->peer_done_root = s->peer_root;
	}
	if (r == 0 && s->done_sent && s->done_received)
		r = end_round(s);
	return r;
}

/* Before our first HELLO: K must not name what two pasts of ours counted. */
static int record_anew(struct session *s, bool *ret_wait)
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

static int live_step(struct session *s)
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
	return start_round(s);
}

int session_step(struct session *s)
{
	enum session_state before;
	int r = 0;

	do {
		before = s->state;
		if (s->state == SESSION_OPENING && s->greeted && s->replica && s->greet_sent && !s->joining &&
				!s->renewing)
			r = settle(s);
		if (r == 0 && s->state != SESSION_ENDED)
			r = check_folder(s);
		/* A joined client says HELLO without waiting for the peer's GREET: one round trip less. */
		if (r == 0 && s->ready && s->round == 0 &&
				(s->state == SESSION_PREPARING ||
					(s->state == SESSION_OPENING && s->options.client && !s->joining && !s->renewing &&
						s->folder.standing == STORE_JOINED))) {
			if (s->state == SESSION_PREPARING || !s->hello_sent) {
				bool opening = s->state == SESSION_OPENING, wait;

				r = record_anew(s, &wait);
				if (r == 0 && wait)
					return 0;
				if (r == 0)
					r = start_round(s);
				if (opening && r == 0)
					s->state = SESSION_OPENING;
			}
		} else if (r == 0 && s->state == SESSION_PREPARING && s->round == 1 && s->hello_sent) {
			s->state = SESSION_ROUND; /* the early HELLO */
		}
		if (r == 0 && s->state == SESSION_ROUND)
			r = round_step(s);
		if (r == 0 && s->state == SESSION_LIVE)
			r = live_step(s);
		if (r == 0 && s->replica)
			r = serve_pump(s);
	} while (r == 0 && s->state != before && s->state != SESSION_ENDED);
	return r;
}

/* --- the end --- */

void session_fail(struct session *s, enum message_fail_code code, int error, const char *text)
{
	union message m = {.fail = {.code = (uint16_t)code}};

	if (s->state == SESSION_ENDED)
		return;
	s->failed = true;
	s->error = error;
	s->code = (uint16_t)code;
	if (text != s->text)
		snprintf(s->text, sizeof(s->text), "%s", text);
	m.fail.text = s->text;
	session_send(s, MESSAGE_FAIL, &m);
	s->state = SESSION_ENDED;
}

static int failed(struct session *s, int r)
{
	if (r >= 0 || s->state == SESSION_ENDED)
		return r;
	if (!s->text[0])
		snprintf(s->text, sizeof(s->text), "%s", file_error_text(r));
	session_fail(s, r == -EBADMSG ? MESSAGE_FAIL_PROTOCOL : r == -ENOSPC ? MESSAGE_FAIL_SPACE : MESSAGE_FAIL_INTERNAL,
		r, s->text);
	return r;
}

static int handle_fail(struct session *s, union message *m)
{
	char text[MESSAGE_TEXT_BYTES_MAX - 64];

	/* The peer's words are escaped: they go to a terminal or a log. */
	text_quote(text, sizeof(text), m->fail.text);
	s->failed = true;
	s->code = m->fail.code;
	s->error = m->fail.code == MESSAGE_FAIL_SPACE ? -ENOSPC : -ECONNABORTED;
	snprintf(s->text, sizeof(s->text), "the other side ended the session: %s", text);
	s->state = SESSION_ENDED;
	return s->error;
}

static int handle_bye(struct session *s)
{
	int r;

	if (!s->bye_sent)
		snprintf(s->text, sizeof(s->text), "the other side ended the session in order");
	r = send_bye(s);
	s->state = SESSION_ENDED;
	return r;
}

static int handle_lineage(struct session *s, union message *m)
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
	memset(m, 0, sizeof(*m));
	s->lineage_jobs++;
	session_job_queue(s, job);
	return 0;
}

static int handle_keepalive(struct session *s, union message *m)
{
	(void)s;
	(void)m;
	return 0;
}

static int handle_bye_message(struct session *s, union message *m)
{
	(void)m;
	return handle_bye(s);
}

static int handle_ask(struct session *s, union message *m)
{
	return compare_ask(s, &m->ask);
}

static int handle_entries(struct session *s, union message *m)
{
	return compare_entries(s, &m->entries);
}

static int handle_pair(struct session *s, union message *m)
{
	return compare_rows(s, MESSAGE_PAIR, m);
}

static int handle_rows(struct session *s, union message *m)
{
	return compare_rows(s, MESSAGE_ROWS, m);
}

static int handle_walked(struct session *s, union message *m)
{
	if (m->walked.round != s->round || s->walk_received || !s->hello_received || compare_we_walk(s) ||
			hash_equal(&s->root, &s->peer_root))
		return session_protocol_error(s, "WALKED out of place");
	s->walk_received = true;
	s->walked = true;
	return 0;
}

static int handle_nodes_ask(struct session *s, union message *m)
{
	return serve_nodes(s, &m->nodes_ask);
}

static int handle_nodes(struct session *s, union message *m)
{
	return fetch_nodes(s, &m->nodes);
}

static int handle_fetch(struct session *s, union message *m)
{
	return serve_fetch(s, &m->fetch);
}

static int handle_data(struct session *s, union message *m)
{
	return fetch_data(s, &m->data);
}

static int handle_gone(struct session *s, union message *m)
{
	return fetch_gone(s, &m->gone);
}

#define IN(state) (1u << (state))
#define ANY (IN(SESSION_OPENING) | IN(SESSION_PREPARING) | IN(SESSION_ROUND) | IN(SESSION_LIVE))

/* Which message may come in which state, and who deals with it; the rest of the table is in message.c. */
static const struct {
	unsigned states;
	int (*handle)(struct session *s, union message *m);
} handlers[MESSAGE_TYPES] = {
	[MESSAGE_OPEN] = {IN(SESSION_OPENING), handle_open},
	[MESSAGE_GREET] = {IN(SESSION_OPENING), handle_greet},
	[MESSAGE_LINEAGE] = {ANY, handle_lineage},
	[MESSAGE_HELLO] = {ANY, handle_hello},
	[MESSAGE_ASK] = {IN(SESSION_ROUND), handle_ask},
	[MESSAGE_ENTRIES] = {IN(SESSION_ROUND), handle_entries},
	[MESSAGE_PAIR] = {IN(SESSION_ROUND), handle_pair},
	[MESSAGE_ROWS] = {IN(SESSION_ROUND), handle_rows},
	[MESSAGE_WALKED] = {IN(SESSION_ROUND), handle_walked},
	[MESSAGE_NODES_ASK] = {IN(SESSION_ROUND) | IN(SESSION_LIVE), handle_nodes_ask},
	[MESSAGE_NODES] = {IN(SESSION_ROUND), handle_nodes},
	[MESSAGE_FETCH] = {IN(SESSION_ROUND) | IN(SESSION_LIVE), handle_fetch},
	[MESSAGE_DATA] = {IN(SESSION_ROUND), handle_data},
	[MESSAGE_GONE] = {IN(SESSION_ROUND), handle_gone},
	[MESSAGE_DONE] = {IN(SESSION_ROUND) | IN(SESSION_LIVE), handle_done},
	[MESSAGE_KEEPALIVE] = {ANY, handle_keepalive},
	[MESSAGE_FAIL] = {ANY, handle_fail},
	[MESSAGE_BYE] = {ANY, handle_bye_message},
};

static int dispatch(struct session *s, uint8_t type, const uint8_t *payload, size_t n)
{
	union message m;
	char why[80];
	int r;

	if (!(handlers[type].states & IN(s->state))) {
		snprintf(why, sizeof(why), "%s out of place", message_info(type)->name);
		return session_protocol_error(s, why);
	}
	r = message_decode(type, payload, n, &m);
	if (r < 0) {
		snprintf(why, sizeof(why), "a malformed %s", message_info(type)->name);
		return r == -EBADMSG ? session_protocol_error(s, why) : r;
	}
	r = handlers[type].handle(s, &m);
	message_deinit(type, &m);
	return r;
}

/* --- jobs --- */

static void run_lineage(struct session_job *job)
{
	struct replica *replica = job->session->replica;
	struct replica_txn t;

	replica_lock(replica);
	job->error = replica_begin(replica, &t);
	if (job->error == 0)
		job->error = replica_learn_lineage(&t, job->lineage.lineage.v, job->lineage.lineage.n);
	if (job->error == 0)
		job->error = replica_commit(&t);
	else
		replica_abort(&t);
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
		r = places_note(&places, s->options.address, s->peer_replica, clock_wall_ns());
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

static void run_learn(struct session_job *job)
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

void session_job_run(struct session_job *job)
{
	struct replica *replica = job->session->replica;

	switch (job->type) {
	case JOB_JOIN:
		job->error = replica_join(replica, &job->was, &job->now);
		break;
	case JOB_RENEW:
		/* Writers take the index's lock first and the store's inside: the writer lock keeps the two orders apart. */
		replica_lock(replica);
		job->error = store_renew_replica(replica_store(replica));
		replica_unlock(replica);
		replica_end_incarnation(replica);
		break;
	case JOB_LINEAGE:
		run_lineage(job);
		break;
	case JOB_ANEW:
		job->error = anew_run(replica, &job->records);
		break;
	case JOB_LEARN:
		run_learn(job);
		break;
	case JOB_PLAN:
		fetch_run_plan(job);
		break;
	case JOB_STAGE:
		fetch_run_stage(job);
		break;
	case JOB_APPLY:
		fetch_run_apply(job);
		break;
	case JOB_READ:
		serve_run_read(job);
		break;
	}
}

static int job_result(struct session *s, struct session_job *job)
{
	switch (job->type) {
	case JOB_JOIN:
		return done_join(s, job);
	case JOB_RENEW:
		s->renewing = false;
		s->opening_ns = s->now_ns;
		return job->error ? store_refused(job->error) : send_greet(s);
	case JOB_LINEAGE:
		s->lineage_jobs--;
		return job->error == -EBADMSG ? session_protocol_error(s, "contradictory lineage") : job->error;
	case JOB_ANEW:
		s->recording_anew = false;
		if (job->records && s->options.host.changed)
			s->options.host.changed(s, s->options.host.data);
		return job->error;
	case JOB_LEARN:
		s->learned = true;
		if (job->full)
			s->skipped_overflow = true;
		s->progress = s->progress || job->stale; /* another round knows */
		return job->error;
	case JOB_PLAN:
		return fetch_done_plan(s, job);
	case JOB_STAGE:
		return fetch_done_stage(s, job);
	case JOB_APPLY:
		return fetch_done_apply(s, job);
	case JOB_READ:
		return serve_done_read(s, job);
	}
	return 0;
}

struct session_job *session_next_job(struct session *s)
{
	for (unsigned lane = 0; lane < SESSION_LANES; lane++) {
		struct session_job *job = s->queue[lane];

		if (!job || s->lane_busy[lane] || s->state == SESSION_ENDED)
			continue;
		s->queue[lane] = job->next;
		if (!job->next)
			s->queue_tail[lane] = &s->queue[lane];
		job->next = NULL;
		s->lane_busy[lane] = true;
		return job;
	}
	return NULL;
}

/* The session ended while the job ran: what it did to the replica counts all the same. */
static void job_after_end(struct session *s, const struct session_job *job)
{
	const struct session_host *host = &s->options.host;

	if (job->type != JOB_APPLY)
		return;
	if (job->error < 0 && host->broken)
		host->broken(s, job->error, host->data);
	else if (job->error == 0 && host->changed)
		host->changed(s, host->data);
}

int session_job_done(struct session *s, struct session_job *job)
{
	int r = 0;

	s->lane_busy[job->lane] = false;
	if (s->state == SESSION_ENDED)
		job_after_end(s, job);
	else
		r = job_result(s, job);
	job_free(job);
	if (s->state == SESSION_ENDED)
		return 0;
	if (r >= 0)
		r = session_step(s);
	return failed(s, r);
}

/* --- the caller's side --- */

int session_new(struct session **ret, const struct session_options *options)
{
	struct session *s = calloc(1, sizeof(*s));
	int r;

	if (!s)
		return -ENOMEM;
	s->options = *options;
	s->options.open.place = options->open.place ? strdup(options->open.place) : NULL;
	s->options.open.version = NULL;
	s->options.address = options->address ? strdup(options->address) : NULL;
	s->replica = options->replica;
	s->ignore = options->ignore;
	s->nonce = random_id();
	s->fetch_tail = &s->fetch_head;
	s->tree_tail = &s->tree_head;
	s->ops_tail = &s->ops_head;
	s->rows_tail = &s->rows_head;
	s->serve_tail = &s->serve_head;
	for (unsigned lane = 0; lane < SESSION_LANES; lane++)
		s->queue_tail[lane] = &s->queue[lane];
	s->now_ns = s->last_in_ns = s->last_out_ns = s->opening_ns = clock_monotonic_ns();
	r = frame_reader_new(&s->reader, message_max_bytes);
	if (r == 0)
		r = frame_writer_new(&s->writer, ZSTD_LEVEL);
	if (r == 0) {
		frame_put_preface(&s->out);
		r = buf_error(&s->out);
	}
	if (r == 0 && options->client) {
		s->opened = true;
		r = send_open(s);
		if (r == 0)
			r = send_greet(s);
	}
	if (r < 0) {
		session_free(s);
		return r;
	}
	*ret = s;
	return 0;
}

void session_free(struct session *s)
{
	if (!s)
		return;
	for (unsigned lane = 0; lane < SESSION_LANES; lane++) {
		assert(!s->lane_busy[lane]);
		while (s->queue[lane]) {
			struct session_job *job = s->queue[lane];

			s->queue[lane] = job->next;
			job_free(job);
		}
	}
	compare_reset(s);
	fetch_reset(s);
	serve_reset(s);
	forget_skipped(s);
	free(s->skipped);
	knowledge_deinit(&s->peer_knowledge);
	frame_reader_free(s->reader);
	frame_writer_free(s->writer);
	buf_deinit(&s->out);
	free(s->peer_name);
	free(s->peer_version);
	free(s->options.open.place);
	free((char *)s->options.address);
	free(s);
}

int session_attach(struct session *s, struct replica *replica, const struct ignore *ignore, bool sends, bool takes)
{
	int r;

	if (s->state == SESSION_ENDED)
		return -ECANCELED;
	s->replica = replica;
	s->ignore = ignore;
	s->options.sends = sends;
	s->options.takes = takes;
	s->opening_ns = s->now_ns;
	r = send_greet(s);
	if (r == 0)
		r = session_step(s);
	return failed(s, r);
}

void session_adopt(struct session *s, int64_t grace_ns, bool preserve_owner, bool confirmed, const struct decide_policy *policy)
{
	s->options.grace_ns = grace_ns;
	s->options.preserve_owner = preserve_owner;
	s->options.confirmed = confirmed;
	s->options.policy = *policy;
}

int session_check(struct session *s)
{
	if (s->state != SESSION_LIVE || s->bye_sent)
		return 0;
	s->local_changed = false;
	return failed(s, start_round(s));
}

int session_ready(struct session *s)
{
	s->ready = true;
	return s->state == SESSION_ENDED ? 0 : failed(s, session_step(s));
}

int session_changed(struct session *s)
{
	s->local_changed = true;
	return s->state == SESSION_LIVE ? failed(s, session_step(s)) : 0;
}

int session_confirm(struct session *s)
{
	s->options.confirmed = true;
	s->confirmed_until = s->round + 1;
	s->in_sync = false;
	return session_changed(s);
}

int session_finish(struct session *s)
{
	if (s->state == SESSION_ENDED)
		return 0;
	s->finishing = true;
	return s->state == SESSION_ROUND ? 0 : failed(s, send_bye(s));
}

static int not_syncd(struct session *s)
{
	const char *garbage = frame_reader_garbage(s->reader);

	snprintf(s->text, sizeof(s->text), "the other side does not speak syncd's protocol; it said %s", quoted(garbage));
	s->failed = true;
	s->error = -EPROTO;
	s->state = SESSION_ENDED;
	return -EPROTO;
}

static int no_common_version(struct session *s)
{
	uint8_t min, max;

	frame_reader_versions(s->reader, &min, &max);
	snprintf(s->text, sizeof(s->text),
		"the other side speaks versions %u to %u of the protocol, this side %u to %u: install the same syncd on both", min,
		max, FRAME_VERSION_MIN, FRAME_VERSION_MAX);
	s->failed = true;
	s->error = -EPROTONOSUPPORT;
	s->state = SESSION_ENDED;
	return -EPROTONOSUPPORT;
}

int session_input(struct session *s, const void *p, size_t n)
{
	const uint8_t *bytes = p;
	int r = 0;

	if (s->state == SESSION_ENDED)
		return s->error;
	s->last_in_ns = s->now_ns;
	if (!s->bytes_in)
		s->opening_ns = s->now_ns;
	s->bytes_in += n;
	while (n && r >= 0) {
		size_t part = n < 65536 ? n : 65536;

		r = frame_reader_feed(s->reader, bytes, part);
		bytes += part;
		n -= part;
		while (r == 0 && s->state != SESSION_ENDED) {
			const uint8_t *payload;
			size_t length;
			uint8_t type;

			r = frame_read(s->reader, &type, &payload, &length);
			if (r == -EBADMSG)
				session_protocol_error(s, "a damaged frame");
			if (r == 0)
				r = dispatch(s, type, payload, length);
			if (r == 0 && s->state != SESSION_ENDED)
				r = session_step(s);
		}
		if (s->state == SESSION_ENDED)
			return s->error;
		if (r == FRAME_NOT_SYNCD)
			return not_syncd(s);
		if (r == FRAME_VERSION)
			return no_common_version(s);
	}
	return failed(s, r);
}

void session_input_end(struct session *s)
{
	if (s->state == SESSION_ENDED)
		return;
	s->state = SESSION_ENDED;
	if (s->bye_sent)
		return;
	s->failed = true;
	s->error = -EPIPE;
	snprintf(s->text, sizeof(s->text), "the connection was closed by the other side");
}

const uint8_t *session_output(const struct session *s, size_t *ret_n)
{
	*ret_n = s->out.len - s->out_at;
	return s->out.data ? s->out.data + s->out_at : NULL;
}

int session_output_consumed(struct session *s, size_t n)
{
	s->bytes_out += n;
	s->out_at += n;
	if (s->out_at >= s->out.len - s->out_at) {
		buf_consume(&s->out, s->out_at);
		s->out_at = 0;
	}
	return s->state == SESSION_ENDED ? 0 : failed(s, session_step(s));
}

int session_tick(struct session *s, int64_t monotonic_ns)
{
	union message m = {0};
	int r = 0;

	s->now_ns = monotonic_ns;
	if (s->state == SESSION_ENDED)
		return 0;
	if (monotonic_ns - s->last_in_ns > SESSION_IDLE_NS) {
		snprintf(s->text, sizeof(s->text), "nothing was heard from the other side for %d s",
			(int)(SESSION_IDLE_NS / CLOCK_NS_PER_S));
		return failed(s, -ETIMEDOUT);
	}
	if (s->state == SESSION_OPENING && !s->joining && !s->renewing && monotonic_ns - s->opening_ns > SESSION_IDLE_NS) {
		snprintf(s->text, sizeof(s->text), "the other side has not said within %d s who it is",
			(int)(SESSION_IDLE_NS / CLOCK_NS_PER_S));
		return failed(s, -ETIMEDOUT);
	}
	r = check_folder(s);
	if (r == 0 && monotonic_ns - s->last_out_ns > SESSION_KEEPALIVE_NS)
		r = session_send(s, MESSAGE_KEEPALIVE, &m);
	return failed(s, r);
}

void session_status(const struct session *s, struct session_status *ret)
{
	*ret = (struct session_status){
		.state = s->state,
		.in_sync = s->in_sync,
		.failed = s->failed,
		.error = s->error,
		.peer_code = s->code,
		.stuck = s->stuck,
		.round = s->round,
		.peer_replica = s->peer_replica,
		.peer_name = s->peer_name ? s->peer_name : "",
		.peer_version = s->peer_version ? s->peer_version : "",
		.text = s->text,
		.root = s->done_root,
		.peer_root = s->peer_done_root,
		.bytes_in = s->bytes_in,
		.bytes_out = s->bytes_out,
		.content_in = s->content_in,
		.content_out = s->content_out,
		.applied = s->applied,
		.conflicts = s->conflicts,
		.skipped = s->skipped_count,
		.held = s->held_count,
		.peer_skipped = s->peer_skipped,
		.peer_held = s->peer_held + s->peer_disk_held,
		.full = s->full_count,
		.peer_full = s->peer_full,
		.differences = s->differences,
		.pending = s->pending,
		.policy_differs = s->policy_differs,
		.ignore_differs = s->ignore_differs,
	};
}
