/*
 * transfer/fetch.c — from offers (a path, what the peer has there) to applied batches; see transfer/fetch_internal.h.
 *
 *   incoming ──PLAN job──▶ FETCHING (fetch_content.c) ──all here──▶ APPLY job ──▶ results
 *       ▲          └─▶ deferred: deletions, and what must wait for them ──flushed when the walk is over──┐
 *       └──────────────────────────────────────────────────────────────────────────────────────────────┘
 *
 * An offer that is being fetched belongs to the caller's thread; while a job works on its stage it is in an op or in a
 * PLAN/APPLY batch, and nobody else touches it. refs counts its outstanding requests and ops.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/defect.h"
#include "base/error.h"
#include "tombstones/trash.h"
#include "transfer/fetch_internal.h"
#include "transfer/partial.h"

#define MAKE_ROOM_BYTES (16 * 1024 * 1024) /* of trash that go at a time when the disk is full */

/* --- small things --- */

struct shared_vector *shared_vector_new(const struct version_vector *v)
{
	struct shared_vector *k = calloc(1, sizeof(*k));

	if (!k)
		return NULL;
	k->refs = 1;
	if (version_vector_copy(&k->v, v) < 0) {
		free(k);
		return NULL;
	}
	return k;
}

void shared_vector_unref(struct shared_vector *k)
{
	if (!k || --k->refs)
		return;
	version_vector_deinit(&k->v);
	free(k);
}

void fetch_offer_free(struct session *s, struct offer *o)
{
	if (!o)
		return;
	fetch_content_free(s, o);
	stage_free(o->stage);
	record_deinit(&o->theirs);
	free(o->bytes);
	shared_vector_unref(o->k);
	free(o->move_from);
	free(o->path);
	free(o);
}

int fetch_batch_add(struct batch *b, struct offer *o)
{
	int r = array_reserve(&b->v, &b->cap, b->n + 1, sizeof(struct offer *));

	if (r == 0) {
		b->v[b->n++] = o;
		o->batch = b;
	}
	return r;
}

void batch_free(struct session *s, struct batch *b)
{
	struct batch **at = &s->batches;

	while (*at && *at != b)
		at = &(*at)->next;
	if (*at) {
		*at = b->next;
		s->n_batches--;
	}
	for (size_t i = 0; i < b->n; i++) {
		s->pending--;
		fetch_offer_free(s, b->v[i]);
	}
	free(b->v);
	free(b);
}

static struct batch *batch_new(struct session *s, enum batch_state state)
{
	struct batch *b = calloc(1, sizeof(*b)), **at = &s->batches;

	if (!b)
		return NULL;
	b->state = state;
	while (*at)
		at = &(*at)->next;
	*at = b;
	s->n_batches++;
	return b;
}

int fetch_skip(struct session *s, const char *path)
{
	int r;

	s->skipped_count++;
	if (DEFECT(SKIP_UNNOTED))
		return 0;
	if (s->n_skipped >= KNOWLEDGE_EXCEPTIONS_MAX) {
		s->skipped_overflow = true; /* K will not be joined: the vector stays as it is */
		return 0;
	}
	r = array_reserve(&s->skipped, &s->cap_skipped, s->n_skipped + 1, sizeof(*s->skipped));
	if (r < 0)
		return r;
	s->skipped[s->n_skipped] = strdup(path);
	if (!s->skipped[s->n_skipped])
		return -ENOMEM;
	s->n_skipped++;
	return 0;
}

static void tell(struct session *s, const struct offer *o)
{
	if (s->options.host.tell)
		s->options.host.tell(s, o->path, o->action, o->result, o->error, s->options.host.data);
}

static bool is_full(int error)
{
	return error == -ENOSPC || error == -EDQUOT;
}

bool fetch_make_room(struct replica *replica, int error)
{
	uint64_t removed = 0;
	unsigned partials = 0;

	if (!is_full(error))
		return false;
	if (partial_expire(replica_store(replica), 0, &partials) == 0 && partials)
		return true;
	replica_lock(replica);
	trash_make_room(replica_store(replica), MAKE_ROOM_BYTES, &removed);
	replica_unlock(replica);
	return removed > 0;
}

int fetch_settle(struct session *s, struct offer *o)
{
	const struct session_host *host = &s->options.host;
	void (*look)(struct session *s, const char *path, void *data) = NULL;
	bool skip = false;

	if (o->stage && (o->result == APPLY_NONE || o->result == APPLY_DONE || o->result == APPLY_NOT_HELD))
		stage_unwanted(o->stage);
	switch (o->result) {
	case APPLY_NONE:
		return 0;
	case APPLY_DONE:
	case APPLY_NOT_HELD:
		s->applied++;
		s->conflicts += o->conflict;
		s->progress = true;
		break;
	case APPLY_NEEDS_CONTENT:
		s->copying_round = s->round + !s->push;
		s->progress = true; /* the next round stages it, or what waited for a move goes without */
		skip = true;
		break;
	case APPLY_CHANGED: /* even where the stamp is as recorded: what is there was compared */
		look = host->doubted;
		skip = true;
		break;
	case APPLY_BUSY:
	case APPLY_BLOCKED:
		look = host->dirty;
		skip = true;
		break;
	case APPLY_HELD:
		s->held_count++;
		skip = true;
		break;
	case APPLY_FAILED:
		s->full_count += is_full(o->error);
		skip = true;
		break;
	case APPLY_WAIT:
		skip = true;
		break;
	}
	if (!skip || !s->push) /* the comparison comes to what a PUSH could not do, and tells */
		tell(s, o);
	if (look)
		look(s, o->path, host->data);
	return skip ? fetch_skip(s, o->path) : 0;
}

static struct apply_options apply_options_of(struct session *s)
{
	return (struct apply_options){
		.replica = s->replica,
		.ignore = s->ignore,
		.taker_loses = !session_we_send(s),
		.revert = s->options.revert && !session_we_send(s) ? store_replica_id(replica_store(s->replica)) : 0,
		.policy = s->policy_differs ? NULL : &s->options.policy,
		.their_knowledge = s->peer_has_knowledge ? &s->peer_knowledge : NULL,
		.source = s->peer_replica,
		.grace_ns = s->options.grace_ns,
		.preserve_owner = s->options.preserve_owner,
	};
}

static struct apply_item apply_item_of(const struct offer *o)
{
	struct apply_item item = {
		.path = o->path,
		.theirs = o->absent ? NULL : &o->theirs,
		.their_k = &o->k->v,
		.staged = o->staged ? stage_name(o->stage) : NULL,
		.move_from = o->move_from,
	};

	if (o->staged) {
		item.ready = stage_ready(o->stage);
		item.nodes = stage_nodes(o->stage, &item.n_nodes);
	}
	return item;
}

/* --- offers --- */

struct batch *fetch_filling(struct session *s)
{
	for (struct batch *b = s->batches; b; b = b->next)
		if (b->state == BATCH_FILLING)
			return b;
	return batch_new(s, BATCH_FILLING);
}

int fetch_offer(struct session *s, const char *path, struct record *theirs, struct shared_vector *k)
{
	struct batch *b;
	struct offer *o;
	int r;

	if (!session_we_take(s))
		return 0;
	b = fetch_filling(s);
	o = calloc(1, sizeof(*o));
	if (!b || !o || !(o->path = strdup(path))) {
		fetch_offer_free(s, o);
		return -ENOMEM;
	}
	o->absent = !theirs;
	o->k = k;
	k->refs++;
	r = fetch_batch_add(b, o);
	if (r < 0) {
		fetch_offer_free(s, o);
		return r;
	}
	if (theirs) {
		o->theirs = *theirs;
		memset(theirs, 0, sizeof(*theirs));
	}
	s->backlog++;
	s->pending++;
	return 0;
}

int fetch_pushed(struct session *s, struct message_pushed *row, struct shared_vector *k)
{
	int r = fetch_offer(s, row->path, &row->record, k);
	struct batch *b = r == 0 ? fetch_filling(s) : NULL;

	if (!b)
		return r;
	b->v[b->n - 1]->bytes = row->bytes;
	b->v[b->n - 1]->n_bytes = row->n;
	s->content_in += row->n;
	row->bytes = NULL;
	row->n = 0;
	return 0;
}

bool fetch_idle(const struct session *s)
{
	return !s->batches && fetch_content_idle(s);
}

/* --- planning --- */

/* What was found above the path before: the next one is likely to be in the same directory. */
struct above {
	const char *path; /* NULL: there was none */
	bool object;
};

/* Is something in the way that is no directory? If its own offer came in a later batch, it would be put aside for nothing. */
static int object_above(struct index_txn *t, const char *path, struct above *above, bool *ret)
{
	int r;

	if (!above->path || !path_same_parent(above->path, path)) {
		r = index_any_leaf_above(t, path);
		if (r < 0)
			return r;
		*above = (struct above){path, r > 0};
	}
	*ret = above->object;
	return 0;
}

static int decide_offer(const struct session *s, struct index_txn *t, const struct knowledge *k, const struct apply_options *options, struct offer *o,
	struct above *above, bool *ret_content)
{
	struct apply_item item = apply_item_of(o);
	cleanup(row_deinit) struct row row = {0};
	bool takes, live;
	int r;

	r = apply_preview(t, k, options, &item, &row, &o->action, ret_content, &o->differs);
	if (r < 0)
		return r;
	live = row_live(&row);
	takes = (o->action == DECIDE_TAKE || o->action == DECIDE_ASIDE) && o->theirs.live;
	o->lands = takes && o->theirs.kind != RECORD_DIRECTORY;
	o->deletes = live && (o->action == DECIDE_DELETE || (o->action == DECIDE_TAKE && !o->theirs.live));
	o->defer = o->deletes;
	if (o->lands && !o->defer) {
		bool directory = row.place == ROW_IMPLIED || (live && row.record.kind == RECORD_DIRECTORY && row.place == ROW_ON_DISK);

		r = directory ? 1 : index_any_live_below(t, o->path);
		o->defer = r > 0;
	}
	if (takes && r >= 0) {
		r = object_above(t, o->path, above, &o->under);
		o->defer = o->defer || o->under;
	}
	if (*ret_content && !live && !o->defer && !o->deferred_once && r >= 0)
		r = fetch_may_move(s, t, o);
	if (o->move_from && r >= 0)
		r = fetch_check_move(options, t, o);
	return r < 0 ? r : 0;
}

static int stage_offer(struct session *s, const struct batch *b, struct offer *o)
{
	const struct content *content = &o->theirs.content;
	struct chunk_tree_entry whole = {.hash = content->root, .length = content->size};
	const struct stage_missing *missing;
	size_t n;
	int r;

	r = stage_begin(&o->stage, s->replica, o->path, content, o->theirs.mode, s->options.threads, b->bulk);
	if (r == 0 && content->height) {
		o->fetch_tree = true;
		return 0;
	}
	if (r == 0)
		r = stage_chunks(o->stage, &whole, 1, NULL);
	if (r == 0) {
		missing = stage_missing(o->stage, &n);
		if (n == 1 && missing[0].length == o->n_bytes)
			r = stage_write(o->stage, missing[0].chunk, o->bytes ? (const void *)o->bytes : "", o->n_bytes);
		if (r == STAGE_MISMATCH)
			r = 0; /* it is asked for */
	}
	if (r == STAGE_COMPLETE) {
		r = stage_finish(o->stage, &o->theirs, s->options.preserve_owner);
		o->staged = r == 0;
	}
	return r < 0 ? r : 0;
}

void fetch_run_plan(struct session_job *job)
{
	struct session *s = job->session;
	struct apply_options options = apply_options_of(s);
	struct batch *b = job->batch;
	struct knowledge k = {0};
	struct above above = {0};
	struct index_txn *t = NULL;
	bool *content = calloc(b->n ? b->n : 1, sizeof(*content));

	job->error = content ? index_begin_read(replica_index(s->replica), &t) : -ENOMEM;
	if (job->error == 0)
		job->error = replica_knowledge_read(t, &k);
	for (size_t i = 0; i < b->n && job->error == 0; i++)
		job->error = decide_offer(s, t, &k, &options, b->v[i], &above, &content[i]);
	index_abort(t);
	for (size_t i = 0; i < b->n && job->error == 0; i++) {
		struct offer *o = b->v[i];

		if (!content[i] || o->move_from || ((o->defer || o->copied) && !o->deferred_once))
			continue;
		o->error = stage_offer(s, b, o);
		while (fetch_make_room(s->replica, o->error)) {
			stage_free(o->stage);
			o->stage = NULL;
			o->error = stage_offer(s, b, o);
		}
	}
	knowledge_deinit(&k);
	free(content);
}

/* Is it in the way of what was left to a later round (or failed), or that in its? Neither of the two is to be put aside for it. A
 * batch sees to that for its own. */
static bool meets_skipped(const struct session *s, const struct offer *o)
{
	if (!o->lands && !o->under)
		return false;
	for (size_t i = 0; i < s->n_skipped; i++)
		if ((o->lands && path_is_below(s->skipped[i], o->path)) || (o->under && path_is_below(o->path, s->skipped[i])))
			return true;
	return s->skipped_overflow; /* any of those that are not known any more may be one */
}

/* A directory below which something waits gets its attributes after that: they may close it, and its times would not stay. */
static bool follows_copied(const struct session *s, const struct offer *o)
{
	return s->waits && !o->absent && o->theirs.live && o->theirs.kind == RECORD_DIRECTORY && path_is_below(s->waits->path, o->path);
}

/* After planning: what is settled goes, what needs content is asked for. Returns whether the offer stays in the batch. */
static int planned(struct session *s, struct offer *o, bool *ret_stays)
{
	bool blocked = o->deferred_once && meets_skipped(s, o);
	int r;

	*ret_stays = false;
	s->differing += !o->error && o->differs && !o->deferred_once;
	if (o->error || o->action == DECIDE_NONE || o->action == DECIDE_WAIT || blocked) {
		o->result = o->error ? APPLY_FAILED : o->action == DECIDE_NONE ? APPLY_NONE : o->action == DECIDE_WAIT ? APPLY_WAIT : APPLY_BLOCKED;
		r = fetch_settle(s, o);
		fetch_offer_free(s, o);
		s->pending--;
		return r;
	}
	if ((o->defer || o->copied || follows_copied(s, o)) && !o->deferred_once)
		return fetch_defer(s, o);
	*ret_stays = true;
	if (!o->stage || o->staged)
		return 0;
	return fetch_content_begin(s, o);
}

/* A long transfer must not hold up the rest of its batch. */
static int split_big(struct session *s, struct batch *b)
{
	size_t kept = 0;
	int r = 0;

	for (size_t i = 0; i < b->n; i++) {
		struct offer *o = b->v[i];
		struct batch *own = NULL;

		if (r == 0 && o->open && o->theirs.content.size > SESSION_SPLIT_BYTES && b->n > 1) {
			own = batch_new(s, BATCH_FETCHING);
			r = own ? fetch_batch_add(own, o) : -ENOMEM;
		}
		if (own && r == 0) {
			own->pending = 1;
			b->pending--;
		} else {
			b->v[kept++] = o;
		}
	}
	b->n = kept;
	return r;
}

int fetch_done_plan(struct session *s, struct session_job *job)
{
	struct batch *b = job->batch;
	size_t kept = 0;
	int r = job->error;

	job->batch = NULL;
	b->state = BATCH_FETCHING;
	for (size_t i = 0; i < b->n; i++) {
		struct offer *o = b->v[i];
		bool stays = true;

		if (r == 0)
			r = planned(s, o, &stays);
		if (stays)
			b->v[kept++] = o;
	}
	b->n = kept;
	if (r == 0)
		r = split_big(s, b);
	if (!b->n)
		batch_free(s, b);
	return r;
}

/* --- applying --- */

void fetch_run_apply(struct session_job *job)
{
	struct session *s = job->session;
	struct apply_options options = apply_options_of(s);
	struct batch *b = job->batch;
	struct apply_item *items = calloc(b->n, sizeof(*items));

	if (!items) {
		job->error = -ENOMEM;
		return;
	}
	for (size_t i = 0; i < b->n; i++)
		items[i] = apply_item_of(b->v[i]);
	job->error = apply_batch(&options, items, b->n);
	for (size_t i = 0; i < b->n && job->error == 0; i++) {
		struct offer *o = b->v[i];

		o->result = items[i].result;
		o->error = items[i].error;
		o->conflict = items[i].conflict;
		o->privileges_cleared = items[i].privileges_cleared;
		if (items[i].consumed)
			stage_taken(o->stage);
	}
	/* After a failed batch intents may name what is in staging: all of it is left to recovery. */
	for (size_t i = 0; i < b->n && job->error < 0; i++)
		if (b->v[i]->stage)
			stage_taken(b->v[i]->stage);
	free(items);
}

int fetch_done_apply(struct session *s, struct session_job *job)
{
	struct batch *b = job->batch;
	uint64_t before = s->applied;
	int r = 0;

	job->batch = NULL;
	if (job->error < 0) {
		batch_free(s, b);
		if (job->error == -EAGAIN)
			snprintf(s->text, sizeof(s->text), "what was being replaced there changed in that moment, or its disk failed; it is recovered: try again");
		if (s->options.host.broken)
			s->options.host.broken(s, job->error, s->options.host.data);
		return job->error;
	}
	for (size_t i = 0; i < b->n && r == 0; i++)
		r = fetch_settle(s, b->v[i]);
	batch_free(s, b);
	if (s->applied != before && s->options.host.changed)
		s->options.host.changed(s, s->options.host.data);
	return r;
}

/* Fetched as far as it goes: what failed is settled, the rest is applied. */
static int queue_apply(struct session *s, struct batch *b)
{
	struct session_job *job;
	size_t kept = 0;
	int r = 0;

	for (size_t i = 0; i < b->n; i++) {
		struct offer *o = b->v[i];

		if (!o->failed || r < 0) {
			b->v[kept++] = o;
			continue;
		}
		o->result = APPLY_FAILED;
		r = fetch_settle(s, o);
		fetch_offer_free(s, o);
		s->pending--;
	}
	b->n = kept;
	if (r < 0)
		return r;
	if (!b->n) {
		batch_free(s, b);
		return 0;
	}
	job = session_job_new(s, JOB_APPLY, SESSION_LANE_APPLY);
	if (!job)
		return -ENOMEM;
	b->state = BATCH_APPLYING;
	job->batch = b;
	session_job_queue(s, job);
	return 0;
}

/* --- driving --- */

static int compare_paths(const void *a, const void *b)
{
	return strcmp((*(struct offer *const *)a)->path, (*(struct offer *const *)b)->path);
}

/* A path stands in a batch at most once (transfer/apply.h), whatever the peer told. */
static int check_paths(struct session *s, struct offer *const *v, size_t n)
{
	struct offer *sorted[SESSION_BATCH_OFFERS];

	memcpy(sorted, v, n * sizeof(*sorted));
	qsort(sorted, n, sizeof(*sorted), compare_paths);
	for (size_t i = 1; i < n; i++)
		if (strcmp(sorted[i - 1]->path, sorted[i]->path) == 0)
			return session_protocol_error(s, "two rows for one path");
	return 0;
}

/* Move the first offers of the filling batch into one of their own and plan it. */
static int plan_next(struct session *s)
{
	struct batch *from = NULL, *b;
	struct session_job *job;
	size_t n, in_flight = 0;
	int r = 0;

	for (b = s->batches; b; b = b->next) {
		if (b->state == BATCH_FILLING)
			from = b;
		else
			in_flight++;
		if (b->state == BATCH_PLANNING)
			return 0;
	}
	if (!from || !from->n || in_flight >= SESSION_BATCHES_MAX)
		return 0;
	if (from->v[0]->deferred_once && in_flight)
		return 0; /* the deferred go in order, one batch after the other */
	n = from->n < SESSION_BATCH_OFFERS ? from->n : SESSION_BATCH_OFFERS;
	if (n > 1 && n < from->n && from->v[n - 1]->move_from)
		n--; /* both halves of a move */
	r = check_paths(s, from->v, n);
	if (r < 0)
		return r;
	b = batch_new(s, BATCH_PLANNING);
	job = session_job_new(s, JOB_PLAN, SESSION_LANE_PLAN);
	if (!b || !job) {
		free(job);
		return -ENOMEM;
	}
	r = array_reserve(&b->v, &b->cap, n, sizeof(struct offer *));
	if (r < 0) {
		free(job);
		return r;
	}
	for (size_t i = 0; i < n; i++)
		fetch_batch_add(b, from->v[i]);
	memmove(from->v, from->v + n, (from->n - n) * sizeof(struct offer *));
	from->n -= n;
	s->backlog -= n;
	if (!from->n)
		batch_free(s, from);
	b->bulk = s->content_in - s->content_before > ROUND_BULK_BYTES;
	job->batch = b;
	session_job_queue(s, job);
	return 0;
}

int fetch_pump(struct session *s)
{
	struct batch *b, *next;
	int r;

	r = plan_next(s);
	do {
		if (r == 0)
			r = fetch_content_pump(s);
		for (b = s->batches; b && r == 0; b = next) {
			next = b->next;
			if (b->state == BATCH_FETCHING && !b->pending)
				r = queue_apply(s, b);
		}
	} while (r == 0 && fetch_content_has_room(s)); /* what failed made room */
	if (r == 0)
		r = plan_next(s);
	return r;
}

void fetch_reset(struct session *s)
{
	fetch_content_reset(s);
	while (s->batches)
		batch_free(s, s->batches);
	fetch_deferred_reset(s);
}
