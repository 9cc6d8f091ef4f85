/*
 * tombstones/replica.c — see tombstones/replica.h.
 *
 * Invariants:
 *  - What is in memory (open incarnation, clock, suspicion) is what was committed last: it changes after index_commit only.
 *  - The lineage in memory may be ahead of the index's: entries are added when they are met, also by a transaction that is
 *    aborted. Each commit appends what the index lacks, [persisted, count), in order, so that no committed vector names an
 *    incarnation that the index doesn't have.
 *  - line.last is where our own line stands. It is the parent of the next incarnation, with the counter that we ourselves
 *    counted there; what peers say of us never enters it.
 */
#include "tombstones/replica.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/defect.h"
#include "base/error.h"
#include "base/random.h"
#include "merkle/path.h"

#define COUNTERS_VERSION 1
#define COUNTERS_SUSPECT 1
#define REPLICA_ANEW_TIMES 8 /* within: */
#define REPLICA_ANEW_NS (INT64_C(3600) * CLOCK_NS_PER_S)

/* What INDEX_META_COUNTERS holds. */
struct counters {
	uint64_t replica; /* id that counted: another one now means that the store became a copy */
	uint64_t clock;
	struct version_dot last;
	bool suspect;
};

/* The farthest point of our line that a peer named. */
struct acknowledged {
	uint64_t peer;
	struct version_dot point;
};

struct replica {
	struct store *store;
	struct version_lineage *lineage;

	pthread_mutex_t writer; /* guards writing; the lock itself is a flag: whoever unlocks may be another thread */
	pthread_cond_t unlocked;
	bool locked;

	/* of the lock holder */
	size_t persisted;	 /* lineage entries that are in the index */
	struct counters durable; /* as committed last */
	uint64_t pending;	 /* drawn by a transaction that was not committed: used again */
	struct version_dot pending_parent;

	pthread_mutex_t state; /* guards what follows */
	struct version_dot own;
	uint64_t era; /* raised when an incarnation ends */
	bool suspect;
	uint64_t forgotten; /* paths, since the start */
	unsigned rounds;
	bool round_awaited;
	bool all_unfinished;
	char **unfinished; /* owned */
	size_t n_unfinished;
	int64_t doubt_ns[REPLICA_DOUBTS]; /* when one ended an incarnation last; 0: never */
	struct line line; /* as committed last, or being committed */
	struct acknowledged *acknowledged;
	size_t n_acknowledged, cap_acknowledged;
	bool anew_due;
	struct version_dot anew_point; /* what is after it is recorded anew */
	unsigned anew_times;	       /* that it became due, since anew_since_ns */
	int64_t anew_since_ns;
};

DEFINE_CLEANUP(struct index_txn *, index_abort)

/* --- counters --- */

static void counters_put(struct buf *b, const struct counters *c)
{
	put_u8(b, COUNTERS_VERSION);
	put_u64(b, c->replica);
	put_varint(b, c->clock);
	put_u64(b, c->last.inc);
	put_varint(b, c->last.counter);
	put_u8(b, c->suspect ? COUNTERS_SUSPECT : 0);
}

static int counters_get(struct cursor *c, struct counters *ret)
{
	uint8_t version = get_u8(c);
	uint8_t flags;

	if (!c->failed && version != COUNTERS_VERSION)
		return -EPROTONOSUPPORT;
	ret->replica = get_u64(c);
	ret->clock = get_varint_max(c, VERSION_COUNTER_MAX);
	ret->last.inc = get_u64(c);
	ret->last.counter = get_varint_max(c, VERSION_COUNTER_MAX);
	flags = get_u8(c);
	ret->suspect = flags & COUNTERS_SUSPECT;
	if ((flags & ~COUNTERS_SUSPECT) || !ret->last.inc != !ret->last.counter || ret->clock < ret->last.counter)
		cursor_fail(c);
	return cursor_finish(c);
}

static bool counters_equal(const struct counters *a, const struct counters *b)
{
	return a->replica == b->replica && a->clock == b->clock && a->last.inc == b->last.inc &&
	       a->last.counter == b->last.counter && a->suspect == b->suspect;
}

/* INDEX_ABSENT: a new index. */
static int counters_read(struct index_txn *t, struct counters *ret)
{
	struct buf b cleanup(buf_deinit) = BUF_INIT;
	struct counters read = {0};
	struct cursor c;
	int r = index_meta_get(t, INDEX_META_COUNTERS, &b);

	if (r)
		return r;
	c = cursor_over(b.data, b.len);
	r = counters_get(&c, &read);
	if (r)
		return r;
	*ret = read;
	return 0;
}

static int counters_write(struct index_txn *t, const struct counters *c)
{
	struct buf b cleanup(buf_deinit) = BUF_INIT;

	counters_put(&b, c);
	return buf_error(&b) ? buf_error(&b) : index_meta_put(t, INDEX_META_COUNTERS, b.data, b.len);
}

static int knowledge_write(struct index_txn *t, const struct knowledge *k)
{
	struct buf b cleanup(buf_deinit) = BUF_INIT;

	b.max_bytes = KNOWLEDGE_BYTES_MAX;
	knowledge_put(&b, k);
	return buf_error(&b) ? buf_error(&b) : index_meta_put(t, INDEX_META_KNOWLEDGE, b.data, b.len);
}

/* --- opening --- */

/* Everything that depends on the lineage of the line we left is forgotten with K. */
static int become_suspect(struct replica *r)
{
	static const struct knowledge nothing;
	struct counters c = {.replica = store_replica_id(r->store), .clock = r->durable.clock, .suspect = true};
	struct index_txn *t = NULL;
	int error = index_begin_write(replica_index(r), &t);

	if (error)
		return error;
	error = knowledge_write(t, &nothing);
	if (!error)
		error = counters_write(t, &c);
	if (error) {
		index_abort(t);
		return error;
	}
	error = index_commit(&t);
	if (!error)
		r->durable = c;
	return error;
}

static int load(struct replica *r)
{
	struct knowledge k cleanup(knowledge_deinit) = {0};
	struct index_txn *t cleanup(index_abort_p) = NULL;
	int error = index_begin_read(replica_index(r), &t);
	bool fresh;

	if (!error)
		error = index_lineage_load(t, r->lineage);
	if (!error)
		error = replica_knowledge_read(t, &k);
	if (error)
		return error;
	error = counters_read(t, &r->durable);
	if (error < 0)
		return error;
	fresh = error == INDEX_ABSENT;
	if (r->durable.last.inc && !version_lineage_find(r->lineage, r->durable.last.inc))
		return -EBADMSG;
	index_abort(steal(t));
	r->persisted = version_lineage_count(r->lineage);
	if (store_copied(r->store) || (!fresh && r->durable.replica != store_replica_id(r->store)))
		return become_suspect(r);
	return 0;
}

int replica_open(struct replica **ret, struct store *store)
{
	struct replica *r = calloc(1, sizeof(*r));
	int error;

	if (!r) {
		store_close(store);
		return -ENOMEM;
	}
	pthread_mutex_init(&r->writer, NULL);
	pthread_cond_init(&r->unlocked, NULL);
	pthread_mutex_init(&r->state, NULL);
	r->store = store;
	error = version_lineage_new(&r->lineage);
	if (!error)
		error = load(r);
	if (error) {
		replica_close(r);
		return error < 0 ? error : -EIO;
	}
	r->suspect = r->durable.suspect;
	r->line.last = r->durable.last;
	*ret = r;
	return 0;
}

static void free_unfinished(struct replica *r)
{
	for (size_t i = 0; i < r->n_unfinished; i++)
		free(r->unfinished[i]);
	free(r->unfinished);
}

void replica_close(struct replica *r)
{
	if (!r)
		return;
	assert(!r->locked);
	store_close(r->store);
	version_lineage_free(r->lineage);
	free_unfinished(r);
	free(r->acknowledged);
	pthread_mutex_destroy(&r->state);
	pthread_cond_destroy(&r->unlocked);
	pthread_mutex_destroy(&r->writer);
	free(r);
}

/* --- looking --- */

struct store *replica_store(const struct replica *r)
{
	return r->store;
}

struct index *replica_index(const struct replica *r)
{
	return store_index(r->store);
}

struct version_lineage *replica_lineage(const struct replica *r)
{
	return r->lineage;
}

bool replica_suspect(const struct replica *r)
{
	pthread_mutex_t *state = (pthread_mutex_t *)&r->state;
	bool suspect;

	pthread_mutex_lock(state);
	suspect = r->suspect;
	pthread_mutex_unlock(state);
	return suspect;
}

void replica_set_suspect(struct replica *r, bool suspect)
{
	pthread_mutex_lock(&r->state);
	r->suspect = suspect;
	pthread_mutex_unlock(&r->state);
}

void replica_round_begins(struct replica *r)
{
	pthread_mutex_lock(&r->state);
	r->rounds++;
	pthread_mutex_unlock(&r->state);
}

bool replica_round_over(struct replica *r)
{
	bool awaited;

	pthread_mutex_lock(&r->state);
	r->rounds--;
	awaited = r->round_awaited;
	r->round_awaited = false;
	pthread_mutex_unlock(&r->state);
	return awaited;
}

bool replica_other_round(struct replica *r)
{
	bool other;

	pthread_mutex_lock(&r->state);
	other = r->rounds > 1;
	r->round_awaited = r->round_awaited || other;
	pthread_mutex_unlock(&r->state);
	return other;
}

struct version_dot replica_own(const struct replica *r)
{
	pthread_mutex_t *state = (pthread_mutex_t *)&r->state;
	struct version_dot own;

	pthread_mutex_lock(state);
	own = r->own;
	pthread_mutex_unlock(state);
	return own;
}

/* The state's lock is held. */
static void end_incarnation(struct replica *r)
{
	r->own = (struct version_dot){0, 0};
	r->era++;
}

void replica_end_incarnation(struct replica *r)
{
	pthread_mutex_lock(&r->state);
	end_incarnation(r);
	pthread_mutex_unlock(&r->state);
}

void replica_doubt(struct replica *r, enum replica_doubt why, int64_t monotonic_ns)
{
	int64_t *last = &r->doubt_ns[why];

	pthread_mutex_lock(&r->state);
	if (r->own.inc && (!*last || monotonic_ns - *last >= REPLICA_DOUBT_NS)) {
		end_incarnation(r);
		*last = monotonic_ns;
	}
	pthread_mutex_unlock(&r->state);
}

static struct acknowledged *acknowledged_by(struct replica *r, uint64_t peer)
{
	for (size_t i = 0; i < r->n_acknowledged; i++)
		if (r->acknowledged[i].peer == peer)
			return &r->acknowledged[i];
	return NULL;
}

/* Counters go on along a line: of two of its points the greater counter is the later. */
static int acknowledge(struct replica *r, uint64_t peer, struct version_dot point)
{
	struct acknowledged *a = acknowledged_by(r, peer);
	int error;

	if (!a) {
		if (r->n_acknowledged >= MEMBERS_MAX)
			return 0;
		error = array_reserve(&r->acknowledged, &r->cap_acknowledged, r->n_acknowledged + 1, sizeof(*r->acknowledged));
		if (error)
			return error;
		a = &r->acknowledged[r->n_acknowledged++];
		*a = (struct acknowledged){.peer = peer};
	}
	if (point.counter > a->point.counter)
		a->point = point;
	return 0;
}

/* On a peer's mere word all records may be written: not without end. */
static bool anew_may_be(struct replica *r)
{
	int64_t now_ns = clock_monotonic_ns();

	if (!r->anew_times || now_ns - r->anew_since_ns > REPLICA_ANEW_NS) {
		r->anew_times = 0;
		r->anew_since_ns = now_ns;
	}
	return r->anew_times++ < REPLICA_ANEW_TIMES;
}

/* What the peer acknowledged was counted before the snapshot, whoever else shows that there was one. */
static void want_anew(struct replica *r, uint64_t peer)
{
	static const struct version_vector nothing;
	struct acknowledged *a = acknowledged_by(r, peer);
	struct version_dot point = a ? a->point : line_named(&r->line, &nothing, r->lineage);

	if (!r->anew_due && !anew_may_be(r))
		return;
	if (!r->anew_due || point.counter > r->anew_point.counter)
		r->anew_point = point;
	r->anew_due = true;
	end_incarnation(r);
}

int replica_hear(struct replica *r, uint64_t peer, const struct version_vector *v)
{
	int error = 0;

	pthread_mutex_lock(&r->state);
	if (line_exceeded(&r->line, v, r->lineage)) {
		want_anew(r, peer);
		error = REPLICA_RESTORED;
	} else if (r->line.first) {
		error = acknowledge(r, peer, line_named(&r->line, v, r->lineage));
	}
	pthread_mutex_unlock(&r->state);
	return error;
}

bool replica_anew_due(const struct replica *r)
{
	pthread_mutex_t *state = (pthread_mutex_t *)&r->state;
	bool due;

	pthread_mutex_lock(state);
	due = r->anew_due;
	pthread_mutex_unlock(state);
	return due;
}

int replica_knowledge_read(struct index_txn *t, struct knowledge *ret)
{
	struct buf b cleanup(buf_deinit) = BUF_INIT;
	struct knowledge read = {0};
	struct cursor c;
	int r = index_meta_get(t, INDEX_META_KNOWLEDGE, &b);

	if (r)
		return r == INDEX_ABSENT ? 0 : r;
	c = cursor_over(b.data, b.len);
	knowledge_get(&c, &read);
	r = cursor_finish(&c);
	if (r) {
		knowledge_deinit(&read);
		return r;
	}
	*ret = read;
	return 0;
}

int replica_members_read(struct index_txn *t, struct members *ret)
{
	struct buf b cleanup(buf_deinit) = BUF_INIT;
	struct members read = {0};
	struct cursor c;
	int r = index_meta_get(t, INDEX_META_MEMBERS, &b);

	if (r)
		return r == INDEX_ABSENT ? 0 : r;
	c = cursor_over(b.data, b.len);
	members_get(&c, &read);
	r = cursor_finish(&c);
	if (r) {
		members_deinit(&read);
		return r;
	}
	*ret = read;
	return 0;
}

/* --- the writer lock --- */

void replica_lock(struct replica *r)
{
	pthread_mutex_lock(&r->writer);
	while (r->locked)
		pthread_cond_wait(&r->unlocked, &r->writer);
	r->locked = true;
	pthread_mutex_unlock(&r->writer);
}

void replica_unlock(struct replica *r)
{
	pthread_mutex_lock(&r->writer);
	assert(r->locked);
	r->locked = false;
	pthread_cond_signal(&r->unlocked);
	pthread_mutex_unlock(&r->writer);
}

void replica_set_unfinished(struct replica *r, char **paths, size_t n)
{
	pthread_mutex_lock(&r->state);
	free_unfinished(r);
	r->unfinished = paths;
	r->n_unfinished = n;
	r->all_unfinished = false;
	pthread_mutex_unlock(&r->state);
}

void replica_all_unfinished(struct replica *r)
{
	pthread_mutex_lock(&r->state);
	r->all_unfinished = true;
	pthread_mutex_unlock(&r->state);
}

bool replica_unfinished(struct replica *r, const char *path)
{
	bool found;

	pthread_mutex_lock(&r->state);
	found = r->all_unfinished;
	for (size_t i = 0; i < r->n_unfinished && !found; i++) {
		const char *at = r->unfinished[i];

		found = strcmp(path, at) == 0 || path_is_below(path, at) || path_is_below(at, path);
	}
	pthread_mutex_unlock(&r->state);
	return found;
}

/* --- transactions --- */

int replica_begin(struct replica *r, struct replica_txn *ret)
{
	struct replica_txn t = {.replica = r};
	int error;

	assert(r->locked);
	error = index_begin_write(replica_index(r), &t.index);
	if (error)
		return error;
	error = replica_knowledge_read(t.index, &t.knowledge);
	if (error) {
		replica_abort(&t);
		return error;
	}
	pthread_mutex_lock(&r->state);
	t.own = r->own;
	t.era = r->era;
	t.line = r->line;
	pthread_mutex_unlock(&r->state);
	t.clock = r->durable.clock;
	*ret = t;
	return 0;
}

static int write_lineage(struct replica_txn *t, size_t count)
{
	for (size_t i = t->replica->persisted; i < count; i++) {
		int r = index_lineage_put(t->index, version_lineage_at(t->replica->lineage, i));

		if (r)
			return r;
	}
	return 0;
}

static int write_out(struct replica_txn *t, size_t count, const struct counters *c)
{
	int r = write_lineage(t, count);

	if (!r && t->knowledge_dirty)
		r = knowledge_write(t->index, &t->knowledge);
	if (!r && !counters_equal(c, &t->replica->durable))
		r = counters_write(t->index, c);
	return r;
}

/* What was committed becomes what is. */
static void take_over(struct replica_txn *t, size_t count, const struct counters *c)
{
	struct replica *r = t->replica;

	r->persisted = count;
	r->durable = *c;
	if (r->pending == c->last.inc)
		r->pending = 0;
	pthread_mutex_lock(&r->state);
	if (r->era == t->era)
		r->own = t->own;
	r->forgotten += t->forgotten;
	if (t->turned_back) {
		r->anew_due = false;
		r->n_acknowledged = 0;
	}
	pthread_mutex_unlock(&r->state);
}

static struct line set_line(struct replica *r, struct line line)
{
	struct line before;

	pthread_mutex_lock(&r->state);
	before = r->line;
	r->line = line;
	pthread_mutex_unlock(&r->state);
	return before;
}

int replica_commit(struct replica_txn *t)
{
	struct replica *r = t->replica;
	struct counters c = {.replica = store_replica_id(r->store),
			     .clock = t->clock,
			     .last = t->line.last,
			     .suspect = replica_suspect(r)};
	size_t count = version_lineage_count(r->lineage);
	struct line before;
	int error;

	assert(r->locked && t->index);
	error = write_out(t, count, &c);
	before = set_line(r, t->line); /* nobody may name what is committed before we say that it is counted */
	if (!error)
		error = index_commit(&t->index);
	if (!error)
		take_over(t, count, &c);
	else
		set_line(r, before);
	replica_abort(t);
	return error > 0 ? -EIO : error;
}

void replica_abort(struct replica_txn *t)
{
	index_abort(steal(t->index));
	knowledge_deinit(&t->knowledge);
}

/* --- forgetting --- */

int replica_forget(struct replica_txn *t, const char *path)
{
	int r = knowledge_forget(&t->knowledge, path);

	if (r)
		return r;
	t->knowledge_dirty = true;
	t->forgotten++;
	return 0;
}

uint64_t replica_forgotten(const struct replica *r)
{
	pthread_mutex_t *state = (pthread_mutex_t *)&r->state;
	uint64_t forgotten;

	pthread_mutex_lock(state);
	forgotten = r->forgotten;
	pthread_mutex_unlock(state);
	return forgotten;
}

/* --- events --- */

/* Draw an incarnation for the transaction, or take up the one that an aborted transaction drew. */
static int open_incarnation(struct replica_txn *t, struct version_dot *ret)
{
	struct replica *r = t->replica;
	struct version_incarnation i = {.parent = t->line.last.inc, .from = t->line.last.counter, .replica = store_replica_id(r->store)};
	const struct version_incarnation *drawn = r->pending ? version_lineage_find(r->lineage, r->pending) : NULL;
	int error;

	if (DEFECT(COUNTER_REUSED) && t->line.last.inc) {
		*ret = t->line.last;
		return 0;
	}
	if (drawn && drawn->parent == i.parent && drawn->from == i.from && drawn->replica == i.replica) {
		*ret = (struct version_dot){drawn->inc, 0};
		return 0;
	}
	do {
		i.inc = random_id();
	} while (version_lineage_find(r->lineage, i.inc));
	error = version_lineage_add(r->lineage, &i);
	if (error)
		return error < 0 ? error : -EIO;
	r->pending = i.inc;
	*ret = (struct version_dot){i.inc, 0};
	return 0;
}

static int next_dot(struct replica_txn *t, const struct record *old, struct version_dot *ret)
{
	struct version_dot dot = t->own;
	uint64_t counter;
	int r = version_next_counter(t->clock, old ? &old->vv : NULL, &counter);

	if (r)
		return r;
	if (!dot.inc) {
		r = open_incarnation(t, &dot);
		if (r)
			return r;
	}
	dot.counter = counter;
	*ret = dot;
	return 0;
}

/* The registers' versions of a record: what an event replaces. */
struct versions {
	struct version_vector vv;
	struct version_dots dots, lost, adots, mdots;
};

static void versions_deinit(struct versions *v)
{
	version_vector_deinit(&v->vv);
	version_dots_deinit(&v->dots);
	version_dots_deinit(&v->lost);
	version_dots_deinit(&v->adots);
	version_dots_deinit(&v->mdots);
}

/* Which registers does the event write? */
struct writes {
	bool state, attributes, mtime;
};

static struct writes writes_of(enum replica_event_kind kind, const struct record *old, const struct record *new)
{
	bool other = !old || !old->live || old->kind != new->kind;

	switch (kind) {
	case REPLICA_EVENT_STATE:
		return (struct writes){true, other || !record_same_attributes(old, new), other || old->mtime_ns != new->mtime_ns};
	case REPLICA_EVENT_ATTRIBUTES:
		return (struct writes){false, true, false};
	case REPLICA_EVENT_MTIME:
		return (struct writes){false, false, true};
	case REPLICA_EVENT_BOTH:
		return (struct writes){false, true, true};
	case REPLICA_EVENT_DELETE:
		break;
	}
	return (struct writes){true, false, false};
}

/* The register's dots after the event: the event's own if it wrote it, else the old ones. */
static int write_register(struct version_dots *ret, bool written, const struct version_dots *old, struct version_dot dot)
{
	if (written)
		return version_dots_add(ret, dot);
	return old ? version_dots_copy(ret, old) : 0;
}

static int make_versions(struct replica_txn *t, struct writes w, bool live, uint8_t kind, const struct record *old,
	struct version_dot dot, struct versions *v)
{
	int r = old ? version_vector_copy(&v->vv, &old->vv) : 0;

	if (r >= 0)
		r = version_vector_raise(&v->vv, dot, t->replica->lineage);
	if (r >= 0)
		r = write_register(&v->dots, w.state, old ? &old->dots : NULL, dot);
	if (r >= 0 && !w.state)
		r = version_dots_copy(&v->lost, &old->lost);
	if (r >= 0 && live)
		r = write_register(&v->adots, w.attributes, old ? &old->adots : NULL, dot);
	if (r >= 0 && live && kind != RECORD_DIRECTORY)
		r = write_register(&v->mdots, w.mtime, old ? &old->mdots : NULL, dot);
	return r < 0 ? r : 0;
}

static void fill_in(struct record *record, struct versions *v, bool live)
{
	struct record made = *record;

	version_vector_deinit(&made.vv);
	version_dots_deinit(&made.dots);
	version_dots_deinit(&made.lost);
	version_dots_deinit(&made.adots);
	version_dots_deinit(&made.mdots);
	if (!live) {
		free(made.target);
		made = (struct record){0};
	}
	made.vv = v->vv;
	made.dots = v->dots;
	made.lost = v->lost;
	made.adots = v->adots;
	made.mdots = v->mdots;
	*v = (struct versions){0};
	*record = made;
}

int replica_event(struct replica_txn *t, enum replica_event_kind kind, const struct record *old, struct record *in_out)
{
	struct versions v cleanup(versions_deinit) = {0};
	bool live = kind != REPLICA_EVENT_DELETE;
	struct version_dot dot;
	int r;

	assert(old != in_out);
	assert(kind == REPLICA_EVENT_STATE || old);
	assert(!live || (in_out->live && in_out->kind));
	assert(kind == REPLICA_EVENT_STATE || kind == REPLICA_EVENT_DELETE || (old->live && old->kind == in_out->kind));

	r = next_dot(t, old, &dot);
	if (!r)
		r = make_versions(t, writes_of(kind, old, in_out), live, in_out->kind, old, dot, &v);
	if (!r)
		r = knowledge_event(&t->knowledge, dot, t->replica->lineage);
	if (r)
		return r < 0 ? r : -EIO;
	t->knowledge_dirty = true;
	t->own = t->line.last = dot;
	if (!t->line.first)
		t->line.first = dot.inc;
	t->clock = dot.counter;
	t->events++;
	fill_in(in_out, &v, live);
	return 0;
}

int replica_turn_back(struct replica_txn *t, struct line *ret_line, struct version_dot *ret_point)
{
	const struct version_lineage *l = t->replica->lineage;
	struct line line = t->line;
	struct version_dot point;
	int r;

	assert(!t->events);
	pthread_mutex_lock(&t->replica->state);
	point = t->replica->anew_point;
	pthread_mutex_unlock(&t->replica->state);
	r = line_cut(&line, point, &t->knowledge.k, l);
	for (size_t i = 0; i < t->knowledge.n && r >= 0; i++)
		r = line_cut(&line, point, &t->knowledge.exceptions[i].vector, l);
	if (r < 0)
		return r;
	t->knowledge_dirty = t->turned_back = true;
	t->own = (struct version_dot){0, 0};
	t->line = (struct line){.last = point};
	*ret_line = line;
	*ret_point = point;
	return 0;
}

/* --- what peers tell --- */

int replica_learn_lineage(struct replica_txn *t, const struct version_incarnation *i, size_t n)
{
	struct replica *r = t->replica;

	for (size_t k = 0; k < n; k++) {
		int error = version_lineage_add(r->lineage, &i[k]);

		if (error < 0)
			return error;
		if (!error && t->own.inc && i[k].parent == t->own.inc && i[k].from > t->own.counter) {
			replica_end_incarnation(r);
			t->own = (struct version_dot){0, 0};
		}
	}
	return 0;
}

int replica_members_write(struct replica_txn *t, const struct members *m)
{
	struct buf b cleanup(buf_deinit) = BUF_INIT;

	members_put(&b, m);
	return buf_error(&b) ? buf_error(&b) : index_meta_put(t->index, INDEX_META_MEMBERS, b.data, b.len);
}

int replica_join(struct replica *r, const struct store_folder *was, const struct store_folder *now)
{
	int error;

	replica_lock(r);
	error = store_join(r->store, was, now);
	replica_unlock(r);
	return error;
}
