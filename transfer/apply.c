/*
 * transfer/apply.c — see transfer/apply.h.
 *
 *   lock → plan, intents: durable → removals below what changes kind → puts, shallow first →
 * removals, deepest first → new directories' attributes → sync → rows, events, intents dropped:
 * durable → unlock
 *
 * Invariants:
 * 1. Nothing in the tree is touched before the intents are durable, and what will be linked in was
 * durable before them.
 * 2. Rows are written only for changes that were made and synced. What failed on its own is told,
 * and leaves no intent.
 * 3. After a failure of the batch as a whole nothing is cleaned up: intents say what there is,
 * recovery sees to it.
 */
#include "transfer/apply_internal.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/defect.h"
#include "base/random.h"
#include "merkle/durable.h"
#include "merkle/path.h"
#include "transfer/recover.h"

const char *apply_result_name(enum apply_result result)
{
	static const char *const names[] = {
		[APPLY_NONE] = "none",
		[APPLY_DONE] = "done",
		[APPLY_WAIT] = "wait",
		[APPLY_NEEDS_CONTENT] = "needs-content",
		[APPLY_CHANGED] = "changed",
		[APPLY_BUSY] = "busy",
		[APPLY_BLOCKED] = "blocked",
		[APPLY_FAILED] = "failed",
		[APPLY_NOT_HELD] = "not-held",
		[APPLY_HELD] = "held",
	};

	assert((size_t)result < ARRAY_SIZE(names));
	return names[result];
}

int apply_preview(struct index_txn *t, const struct knowledge *k,
	const struct apply_options *options, const struct apply_item *item, struct row *ret_ours,
	enum decide_action *ret_action, bool *ret_content, bool *ret_differs)
{
	struct decide_result d = {0};
	struct decide_input in = {
		.theirs = item->theirs,
		.our_k = knowledge_of(k, item->path),
		.their_k = item->their_k,
		.lineage = replica_lineage(options->replica),
		.taker_loses = options->taker_loses,
		.revert = options->revert,
		.policy = options->policy,
	};
	int r;

	*ret_ours = (struct row){0};
	if (!path_valid(item->path))
		return -EINVAL;
	r = index_get(t, item->path, ret_ours);
	if (r < 0)
		return r;
	in.ours = row_has_record(ret_ours) ? &ret_ours->record : NULL;
	r = decide(&in, &d);
	if (r != 0)
		return r;
	*ret_action = d.action;
	*ret_differs = d.differs;
	*ret_content = (d.action == DECIDE_TAKE || d.action == DECIDE_ASIDE) && d.record.live &&
		       d.record.kind == RECORD_FILE &&
		       plan_place(options, item->path, &d.record) == ROW_ON_DISK &&
		       !replica_unfinished(options->replica, item->path); /* apply_batch will skip it */
	decide_result_deinit(&d);
	return 0;
}

/* --- changes --- */

bool change_skipped(const struct change *c)
{
	switch (c->outcome.result) {
	case APPLY_NONE:
	case APPLY_DONE:
	case APPLY_NOT_HELD:
		return false;
	default:
		return true;
	}
}

void change_skip(struct change *c, enum apply_result result, int error)
{
	c->writes = c->drop = false;
	c->outcome.result = result;
	c->outcome.error = error;
}

static void change_free(struct change *c)
{
	free(c->path);
	row_deinit(&c->row);
	decide_result_deinit(&c->decision);
	intent_deinit(&c->intent);
	place_outcome_deinit(&c->outcome);
	free(c);
}

/* Path order. *same: so many of their first bytes are known to be the same; then: are. */
static int compare_paths(const char *a, const char *b, size_t *same)
{
	const char *begin = a;

	for (a += *same, b += *same; *a && *a == *b; a++, b++)
		;
	*same = (size_t)(a - begin);
	if (*a == '/' || *b == '/')
		return *b == '\0' ? 1 : *a == '\0' ? -1 : *a == '/' ? -1 : 1;
	return (unsigned char)*a - (unsigned char)*b;
}

/* Where the path is, or belongs. What it has in common with both that are next to the range, it has with all in between. */
static size_t position(const struct batch *b, const char *path, bool *ret_found)
{
	size_t from = 0, to = b->n, same_before = 0, same_behind = 0;

	*ret_found = false;
	while (from < to && !*ret_found) {
		size_t middle = from + (to - from) / 2;
		size_t same = same_before < same_behind ? same_before : same_behind;
		int order = compare_paths(b->v[middle]->path, path, &same);

		*ret_found = order == 0;
		if (order < 0) {
			from = middle + 1;
			same_before = same;
		} else {
			to = middle;
			same_behind = same;
		}
	}
	return to;
}

struct change *batch_find(const struct batch *b, const char *path)
{
	bool found;
	size_t at = position(b, path, &found);

	return found ? b->v[at] : NULL;
}

int batch_add(struct batch *b, struct index_txn *t, const char *path, struct apply_item *item,
	struct change **ret)
{
	bool found;
	size_t at = position(b, path, &found);
	struct change *c;
	int r = found ? -EINVAL : array_reserve(&b->v, &b->cap, b->n + 1, sizeof(struct change *));

	if (r != 0)
		return r;
	c = calloc(1, sizeof(*c));
	if (!c || !(c->path = strdup(path))) {
		free(c);
		return -ENOMEM;
	}
	c->item = item;
	if (!path_valid(path)) {
		change_skip(c, APPLY_FAILED, -EINVAL);
	} else {
		r = index_get(t, path, &c->row);
		c->had_row = r == 0;
		if (r < 0) {
			change_free(c);
			return r;
		}
		/* What is there may be a user's doing, or an object that came: recovery will tell. */
		if (replica_unfinished(b->options->replica, path))
			change_skip(c, APPLY_CHANGED, 0);
	}
	memmove(&b->v[at + 1], &b->v[at], (b->n - at) * sizeof(struct change *));
	b->v[at] = c;
	b->n++;
	*ret = c;
	return 0;
}

size_t batch_below(const struct batch *b, const struct change *c)
{
	bool found;

	return position(b, c->path, &found) + 1;
}

bool batch_skipped_below(const struct batch *b, const struct change *c)
{
	for (size_t k = batch_below(b, c); k < b->n && path_is_below(b->v[k]->path, c->path); k++)
		if (change_skipped(b->v[k]))
			return true;
	return false;
}

/* The nearest change above that makes `wanted` true. */
static bool any_above(
	const struct batch *b, const struct change *c, bool (*wanted)(const struct change *c))
{
	char at[FILE_PATH_BYTES_MAX + 1];
	size_t n = strlen(c->path);

	memcpy(at, c->path, n + 1);
	while ((n = path_parent_length(at)) > 0) {
		struct change *above;

		at[n] = '\0';
		above = batch_find(b, at);
		if (above && wanted(above))
			return true;
	}
	return false;
}

static bool collided(const struct change *c)
{
	return c->writes && c->outcome.place == ROW_COLLIDES;
}

bool batch_collides_above(const struct batch *b, const struct change *c)
{
	return any_above(b, c, collided);
}

bool batch_changes_above(const struct batch *b, const struct change *c)
{
	return any_above(b, c, change_lands_as_object);
}

/* --- the first transaction --- */

static void batch_deinit(struct batch *b)
{
	for (size_t k = 0; k < b->n; k++)
		change_free(b->v[k]);
	free(b->v);
	place_deinit(&b->place);
}

/* An empty file in staging, durable before the intents are. That it is still there says that nobody
 * emptied the directory: only then "the new object is nowhere" means that a user deleted it. */
static int mark_batch(struct batch *b)
{
	char name[RECOVER_MARKER_BYTES];
	int fd, r;

	recover_marker(name, b->id);
	r = file_create(store_staging(b->store), name, 0600, &fd);
	if (r == 0)
		close_keep(fd);
	return r > 0 ? -EIO : r;
}

static void unmark_batch(struct batch *b)
{
	char name[RECOVER_MARKER_BYTES];

	recover_marker(name, b->id);
	(void)file_unlink(store_staging(b->store), name);
}

static bool touches_disk(const struct change *c)
{
	return c->writes && c->intent.op != INTENT_RECORD;
}

static int put_intent(struct batch *b, struct replica_txn *t, uint32_t number)
{
	struct buf buf = {.max_bytes = INTENT_BYTES_MAX};
	int r;

	intent_put(&buf, &b->v[number]->intent);
	r = buf_error(&buf);
	if (r == 0)
		r = index_intent_put(t->index, b->id, number, buf.data, buf.len);
	buf_deinit(&buf);
	return r;
}

/* Nodes go in now, so that recovery has them whatever became of the file; those of failed items are
 * swept some day. */
static int write_intents(struct batch *b, struct replica_txn *t, bool *ret_any)
{
	struct settle s = {.txn = t};
	int r = 0;

	*ret_any = false;
	for (size_t k = 0; r == 0 && k < b->n; k++) {
		struct change *c = b->v[k];

		if (!touches_disk(c))
			continue;
		*ret_any = true;
		if (DEFECT(INTENT_DROPPED))
			continue;
		if (c->intent.staged && !c->staged_here)
			r = settle_nodes(&s, c->item->nodes, c->item->n_nodes);
		if (r == 0)
			r = put_intent(b, t, (uint32_t)k);
	}
	return r;
}

/* 0: the plan is made, and durable as far as it concerns the disk. */
static int begin(struct batch *b, struct apply_item *items, size_t n)
{
	struct replica_txn t;
	bool any = false;
	int r = mark_batch(b);

	if (r == 0)
		r = replica_begin(b->options->replica, &t);
	if (r != 0)
		return r;
	r = plan_batch(b, &t, items, n);
	if (r == 0)
		r = write_intents(b, &t, &any);
	if (r == 0 && any)
		return replica_commit(&t);
	replica_abort(&t);
	return r;
}

/* --- on disk --- */

static const struct row *ours_of(const struct change *c)
{
	return c->had_row ? &c->row : NULL;
}

/* A user was there: if there is a directory all the same, the index does not know it, and would not miss what lands in it. */
static bool is_no_directory_of_ours(const struct change *c)
{
	return c->writes && c->intent.op == INTENT_PUT && change_skipped(c);
}

static int carry_out(struct batch *b, struct change *c)
{
	struct place_outcome *o = &c->outcome;

	if (change_lands(c) && any_above(b, c, is_no_directory_of_ours)) {
		o->result = APPLY_BLOCKED;
		return 0;
	}
	if (change_lands(c) && batch_collides_above(b, c)) {
		o->place = ROW_COLLIDES;
		o->result = APPLY_NOT_HELD;
		return 0;
	}
	if ((c->intent.fate == INTENT_RMDIR || change_lands_as_object(c)) && batch_skipped_below(b, c)) {
		o->result = APPLY_BLOCKED;
		return 0;
	}
	if (c->moved_from) {
		struct change *from = c->moved_from;

		place_run_move(&b->place, &from->intent, ours_of(from), &from->outcome, &c->intent, o);
		return 0;
	}
	return place_run(&b->place, &c->intent, ours_of(c), o);
}

static bool is_removal(const struct change *c)
{
	return touches_disk(c) && c->intent.op == INTENT_REMOVE;
}

/* A directory that is being closed to its owner is closed last. */
static bool is_late(const struct change *c)
{
	return touches_disk(c) && c->intent.op == INTENT_SET &&
	       c->intent.record.kind == RECORD_DIRECTORY && (c->intent.record.mode & 0300) != 0300;
}

static int remove_all(struct batch *b, bool early)
{
	int r = 0;
	const struct file_abilities *able = store_abilities(b->store);
	bool folds = able->fold_case || able->fold_unicode;

	for (size_t k = b->n; r == 0 && k-- > 0;) {
		struct change *c = b->v[k];

		if (!is_removal(c) || (folds || batch_changes_above(b, c)) != early)
			continue;
		if (!c->moved_to)
			r = carry_out(b, c);
		else if (c->outcome.result == APPLY_NONE) /* nothing was tried */
			c->outcome.result = APPLY_NEEDS_CONTENT;
	}
	return r;
}

static bool is_new_directory(const struct change *c)
{
	return touches_disk(c) && c->intent.op == INTENT_PUT &&
	       c->intent.new_kind == RECORD_DIRECTORY && c->outcome.result == APPLY_DONE;
}

/* A user may have moved a directory since it was recorded: what came into it is where its name is. */
static int sync_places(struct batch *b)
{
	struct index_txn *t;
	const char *last = NULL;
	int r = index_begin_read(replica_index(b->options->replica), &t);

	for (size_t k = 0; r == 0 && k < b->n && !b->place.touched.many; k++) {
		const char *path = b->v[k]->path;

		if (!touches_disk(b->v[k]) || (last && path_same_parent(last, path)))
			continue;
		durable_add_above(t, store_root(b->store), path, &b->place.touched);
		last = path;
	}
	if (r != 0)
		return r;
	index_abort(t);
	return place_sync(&b->place);
}

static int run(struct batch *b)
{
	int r = remove_all(b, true);

	for (size_t k = 0; r == 0 && k < b->n; k++)
		if (touches_disk(b->v[k]) && !is_removal(b->v[k]) && !is_late(b->v[k]))
			r = carry_out(b, b->v[k]);
	if (r == 0)
		r = remove_all(b, false);
	for (size_t k = b->n; r == 0 && k-- > 0;) {
		if (is_late(b->v[k]))
			r = carry_out(b, b->v[k]);
		else if (is_new_directory(b->v[k]))
			r = place_finish_directory(&b->place, &b->v[k]->intent, &b->v[k]->outcome);
	}
	return r == 0 ? sync_places(b) : r;
}

/* --- the second transaction --- */

static bool settled(const struct change *c)
{
	return c->writes && (c->intent.op == INTENT_RECORD || !change_skipped(c));
}

static int renew(struct replica_txn *t, struct record *in_out)
{
	cleanup(record_deinit) struct record old = {0};
	int r = record_copy(&old, in_out);

	return r == 0 ? replica_event(t, REPLICA_EVENT_STATE, &old, in_out) : r;
}

static int settle_change(struct batch *b, struct settle *s, struct change *c)
{
	const struct apply_item *item = c->item;
	bool nodes = c->intent.staged && !c->staged_here && item;
	int r = settle_copies(s, &c->intent, ours_of(c), &c->outcome);

	if (r == 0 && c->drop)
		r = index_drop(s->txn->index, c->path);
	if (r != 0 || !settled(c))
		return r;
	if (c->intent.op == INTENT_RECORD) {
		/* Undecided things below turned up on disk: so is this. */
		if (c->row.place == ROW_IMPLIED || c->intent.place == ROW_IMPLIED)
			if (batch_skipped_below(b, c)) {
				change_skip(c, APPLY_BLOCKED, 0);
				return 0;
			}
		c->outcome.place = c->intent.place;
	}
	if (c->decision.action == DECIDE_RENEW)
		r = renew(s->txn, &c->intent.record);
	if (r != 0)
		return r;
	return settle_row(s, &c->intent, ours_of(c), &c->outcome, nodes ? item->nodes : NULL,
		nodes ? item->n_nodes : 0);
}

/* It is live, so what is above it stays. */
static bool stands(const struct change *c)
{
	return settled(c) && c->outcome.place == ROW_ON_DISK && c->intent.becomes == INTENT_TAKEN && c->intent.record.live;
}

static int settle_changes(struct batch *b, struct settle *s)
{
	int r = 0;

	/* Copies first, deepest first for what stays implied above what failed. */
	for (size_t k = b->n; r == 0 && k-- > 0;)
		r = settle_change(b, s, b->v[k]);
	for (size_t k = b->n; r == 0 && k-- > 0;)
		if (b->v[k]->drop || (b->v[k]->writes && !stands(b->v[k])))
			r = settle_implied(s, &b->place, b->v[k]->path);
	return r == 0 ? place_sync(&b->place) : r;
}

static int end(struct batch *b)
{
	struct replica_txn t;
	struct settle s = {.txn = &t, .ignore = b->options->ignore, .now_ns = b->now_ns};
	int r = replica_begin(b->options->replica, &t);

	if (r != 0)
		return r;
	r = settle_changes(b, &s);
	if (r == 0)
		r = index_intent_drop_batch(t.index, b->id);
	if (r == 0)
		return replica_commit(&t);
	replica_abort(&t);
	return r;
}

/* --- a batch --- */

/* What was made in staging and did not get anywhere. */
static void clean_staging(struct batch *b)
{
	int staging = store_staging(b->store);

	for (size_t k = 0; k < b->n; k++) {
		const struct change *c = b->v[k];

		if (!c->staged_here || !c->intent.staged || c->outcome.placed)
			continue;
		if (c->intent.new_kind == RECORD_SYMLINK)
			(void)file_unlink(staging, c->intent.staged);
		else
			(void)file_rmdir(staging, c->intent.staged);
	}
	unmark_batch(b);
}

static bool not_here(uint8_t place)
{
	return place == ROW_IGNORED || place == ROW_UNSUPPORTED || place == ROW_COLLIDES;
}

static void report(struct batch *b, struct change *c)
{
	struct place_outcome *o = &c->outcome;
	const struct apply_options *options = b->options;
	bool aside = c->intent.aside &&
		     (c->intent.fate == INTENT_ASIDE || c->intent.op == INTENT_PUT_ASIDE);

	if (!change_skipped(c) && (c->writes || c->drop))
		o->result = c->writes && not_here(o->place) ? APPLY_NOT_HELD : APPLY_DONE;
	if (c->item) {
		c->item->result = o->result;
		c->item->error = o->error;
		c->item->privileges_cleared =
			o->result == APPLY_DONE && c->decision.privileges_cleared;
		c->item->conflict = o->n_copies > 0 || (aside && o->result == APPLY_DONE);
		c->item->consumed = c->item->staged && o->placed && !c->staged_here;
	}
	if (options->tell && (o->result != APPLY_NONE || o->n_copies > 0))
		options->tell(c->path, c->decision.action, o->result, options->tell_data);
	for (size_t k = 0; options->tell && k < o->n_copies; k++)
		options->tell(o->copies[k].path, DECIDE_ASIDE, APPLY_DONE, options->tell_data);
}

/* What came out and is still in staging may be a user's, and is not to be seen anywhere: recovery tells, by the old rows. */
static int nothing_kept(const struct batch *b)
{
	for (size_t k = 0; k < b->n; k++)
		if (b->v[k]->outcome.keep)
			return -EAGAIN;
	return 0;
}

static int batch_run(struct batch *b, struct apply_item *items, size_t n)
{
	int r = begin(b, items, n);

	if (r == 0)
		r = run(b);
	if (r == 0)
		r = nothing_kept(b);
	return r == 0 ? end(b) : r;
}

/* Nothing is acknowledged; whatever an intent may name is left to recovery. */
static void report_failure(struct apply_item *items, size_t n, int error)
{
	for (size_t k = 0; k < n; k++) {
		items[k].result = APPLY_FAILED;
		items[k].error = error;
		items[k].consumed = items[k].staged != NULL;
	}
}

int apply_batch(const struct apply_options *options, struct apply_item *items, size_t n)
{
	struct batch b = {
		.options = options,
		.store = replica_store(options->replica),
		.id = random_id(),
		.now_ns = clock_wall_ns(),
	};
	int r;

	place_init(&b.place, b.store, b.now_ns);
	for (size_t k = 0; k < n; k++) {
		items[k].result = APPLY_NONE;
		items[k].error = 0;
		items[k].privileges_cleared = items[k].conflict = items[k].consumed = false;
	}
	replica_lock(options->replica);
	r = store_check_root(b.store) == 0 ? batch_run(&b, items, n) : -ESTALE;
	if (r == 0)
		clean_staging(&b);
	else
		replica_all_unfinished(options->replica); /* no scan is to see it before recovery has */
	replica_unlock(options->replica);
	if (r != 0)
		report_failure(items, n, r);
	for (size_t k = 0; r == 0 && k < b.n; k++)
		report(&b, b.v[k]);
	batch_deinit(&b);
	return r;
}
