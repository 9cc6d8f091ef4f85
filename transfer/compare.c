/*
 * transfer/compare.c — the comparison of a round: walk (ASK, ENTRIES), and exchange the rows that differ (PAIR, ROWS).
 * Where both never met, ranges go through compare_match.c first.
 *
 * A PAIR names each path of one range that differs: the walker's own rows (tombstones too), and the separators of the
 * answerer's rows of which it has none. The answerer's ROWS tell what it has of all these paths. Both kinds of absence are
 * proven, in the transaction whose K goes with the message.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "transfer/session_internal.h"

#define PAIR_ROWS_MAX 4096 /* that ROWS may still tell, above which nothing more is paired */

/* Messages of rows that wait. Rows as PAIR_ROWS_MAX allows and those of the range that passes it, each of at most some KB, in
 * messages of MESSAGE_SPLIT_BYTES, are fewer by far. */
#define ROWS_MAX 1024

/* --- composing rows --- */

struct compose {
	struct session *s;
	struct index_txn *t;
	struct knowledge knowledge;
	uint8_t type; /* MESSAGE_PAIR or MESSAGE_ROWS */
	union message m;
	size_t cap_items, cap_wants;
	size_t bytes; /* about what is in m */
};

static void compose_clear(struct compose *c)
{
	message_deinit(c->type, &c->m);
	c->cap_items = c->cap_wants = 0;
	c->bytes = 0;
}

static int compose_begin(struct compose *c, struct session *s, uint8_t type)
{
	int r;

	*c = (struct compose){.s = s, .type = type};
	r = index_begin_read(replica_index(s->replica), &c->t);
	if (r == 0 && session_we_send(s))
		r = replica_knowledge_read(c->t, &c->knowledge);
	/* What this transaction shows may use lineage that the peer does not have yet. */
	if (r == 0)
		r = round_send_lineage(s, false);
	return r;
}

static void compose_end(struct compose *c)
{
	compose_clear(c);
	knowledge_deinit(&c->knowledge);
	index_abort(c->t);
}

static int compose_send(struct compose *c, uint32_t id, bool last)
{
	struct message_pair *p = &c->m.pair;
	int r = 0;

	p->id = id;
	p->last = last;
	p->has_k = session_we_send(c->s);
	if (p->has_k)
		r = version_vector_copy(&p->k, &c->knowledge.k);
	if (r == 0)
		r = session_send(c->s, c->type, &c->m);
	compose_clear(c);
	return r;
}

size_t compare_about_bytes(const struct record *r)
{
	return 160 + 16 * (r->vv.n + r->lost.n) + (r->target ? r->content.size : 0);
}

/* Add what we have of one path. */
static int compose_item(struct compose *c, const char *path)
{
	struct message_pair *p = &c->m.pair;
	struct message_item *item;
	struct row row = {0};
	const struct version_vector *k;
	int r;

	r = array_reserve(&p->items, &c->cap_items, p->n_items + 1, sizeof(*p->items));
	if (r < 0)
		return r;
	item = &p->items[p->n_items];
	*item = (struct message_item){.path = strdup(path), .tell = MESSAGE_UNTOLD};
	if (!item->path)
		return -ENOMEM;
	p->n_items++;
	c->bytes += strlen(path) + 16;
	if (!session_we_send(c->s))
		return 0;
	r = index_get(c->t, path, &row);
	if (r < 0)
		return r;
	item->tell = r == 0 && row_has_record(&row) ? MESSAGE_RECORD : MESSAGE_ABSENT;
	if (item->tell == MESSAGE_RECORD) {
		item->record = row.record;
		memset(&row.record, 0, sizeof(row.record));
		c->bytes += compare_about_bytes(&item->record);
	}
	row_deinit(&row);
	k = knowledge_of(&c->knowledge, path);
	item->has_k = k != &c->knowledge.k;
	if (item->has_k) {
		r = version_vector_copy(&item->k, k);
		c->bytes += 16 * k->n;
		return r;
	}
	return 0;
}

static bool compose_full(const struct compose *c)
{
	return c->bytes >= MESSAGE_SPLIT_BYTES || c->m.pair.n_items >= MESSAGE_ITEMS_MAX;
}

static int compose_want(struct compose *c, uint64_t separator)
{
	struct message_pair *p = &c->m.pair;
	int r = array_reserve(&p->wants, &c->cap_wants, p->n_wants + 1, sizeof(*p->wants));

	if (r == 0)
		p->wants[p->n_wants++] = separator;
	return r;
}

/* --- the walker --- */

/* The side with the greater id walks. */
bool compare_we_walk(const struct session *s)
{
	return s->peer_replica < s->own_replica;
}

int compare_begin(struct session *s)
{
	int r;

	if (!compare_we_walk(s))
		return 0;
	s->asks = malloc(ASK_SLOTS * sizeof(*s->asks));
	if (!s->asks)
		return -ENOMEM;
	r = diff_new(&s->diff, s->seed);
	if (r == 0) {
		diff_expect(s->diff, s->live > s->peer_live ? s->live : s->peer_live, 0);
		r = compare_never_met(s, &s->never_met);
	}
	if (r == 0)
		r = diff_start(s->diff, true, false);
	return r;
}

void compare_reset(struct session *s)
{
	diff_free(s->diff);
	s->diff = NULL;
	for (size_t i = 0; i < s->n_asks; i++)
		free(s->asks[i].entries.v);
	free(s->asks);
	s->asks = NULL;
	s->n_asks = 0;
	for (size_t i = 0; i < MATCHES_MAX; i++)
		compare_match_free(&s->matches[i]);
	s->asks_out = s->pairs_out = s->pair_rows = 0;
	while (s->rows_head) {
		struct pending_rows *rows = s->rows_head;

		s->rows_head = rows->next;
		message_deinit(rows->type, &rows->m);
		free(rows);
	}
	s->rows_tail = &s->rows_head;
	s->rows_n = 0;
}

bool compare_idle(const struct session *s)
{
	return !s->asks_out && !s->pairs_out && !s->rows_head;
}

static int pump_asks(struct session *s)
{
	struct message_range ranges[ASKS_MAX];
	union message m = {.ask = {.v = ranges}};
	union message walked = {.walked = {.round = s->round}};
	int r = 0;

	while (r == 0 && s->asks_out < ASKS_MAX && s->pairs_out < SESSION_PAIRS_MAX && s->backlog < SESSION_BACKLOG_MAX) {
		struct ask *slot = s->asks;
		struct diff_range range;

		r = diff_next(s->diff, &range);
		if (r == 0 && s->never_met && !range.level && !range.split) {
			r = compare_match_ask(s, &range);
			if (r == 0)
				continue;
			if (r == MATCH_NOTHING)
				r = 0;
		}
		if (r != 0)
			break;
		while (slot < s->asks + s->n_asks && slot->state != ASK_UNUSED)
			slot++;
		if (slot == s->asks + s->n_asks)
			s->n_asks++;
		*slot = (struct ask){.state = ASK_OUT, .id = s->next_id++, .range = range};
		ranges[m.ask.n++] = (struct message_range){.id = slot->id, .range = range};
		s->asks_out++;
	}
	if (r >= 0 && m.ask.n) {
		int sent = session_send(s, MESSAGE_ASK, &m);

		return sent;
	}
	if (r == DIFF_DONE && !s->asks_out && !s->walk_sent) {
		s->walk_sent = true;
		s->walked = true;
		return session_send(s, MESSAGE_WALKED, &walked);
	}
	return r < 0 ? r : 0;
}

/* Our tombstones among the wants: they are told as rows, so that what remains of the wants is absent here. */
struct told {
	struct compose *c;
	uint32_t id;
	uint64_t *v; /* separators of the paths told so far; owned */
	size_t n, cap;
};

static int tell_path(const char *path, void *data)
{
	struct told *told = data;
	struct path_key key;
	int r = array_reserve(&told->v, &told->cap, told->n + 1, sizeof(*told->v));

	if (r < 0)
		return r;
	path_key(&key, path);
	told->v[told->n++] = diff_separator(&key, told->c->s->seed);
	r = compose_item(told->c, path);
	if (r == 0 && compose_full(told->c))
		r = compose_send(told->c, told->id, false);
	return r;
}

static bool among(const uint64_t *sorted, size_t n, uint64_t separator)
{
	return n && bsearch(&separator, sorted, n, sizeof(*sorted), array_compare_u64);
}

/* Paths of which we have nothing and know less than of the others: to be told one by one, with what we know of them. As wants
 * they would be taken for deleted here. */
static int tell_exceptions(struct compose *c, const struct diff_found *found, struct told *told)
{
	const struct knowledge *k = &c->knowledge;
	uint64_t *theirs;
	int r = 0;

	if (!k->n || !found->n_theirs)
		return 0;
	theirs = malloc(found->n_theirs * sizeof(*theirs));
	if (!theirs)
		return -ENOMEM;
	memcpy(theirs, found->theirs, found->n_theirs * sizeof(*theirs));
	qsort(theirs, found->n_theirs, sizeof(*theirs), array_compare_u64);
	if (told->n)
		qsort(told->v, told->n, sizeof(*told->v), array_compare_u64);
	for (size_t i = 0, before = told->n; i < k->n && r == 0; i++) {
		struct path_key key;
		uint64_t separator;

		path_key(&key, k->exceptions[i].path);
		separator = diff_separator(&key, c->s->seed);
		if (among(theirs, found->n_theirs, separator) && !among(told->v, before, separator))
			r = tell_path(k->exceptions[i].path, told);
	}
	free(theirs);
	return r;
}

static int send_pairs(struct session *s, struct compose *c, uint32_t id, const struct diff_range *covered,
	const struct diff_found *found)
{
	struct told told = {.c = c, .id = id};
	struct diff_range range = *covered;
	int r = 0;

	for (size_t i = 0; i < found->n_ours && r == 0; i++)
		r = tell_path(found->ours[i], &told);
	range.level = 0;
	range.which = TREE_TOMBSTONES;
	if (r == 0 && found->n_theirs && session_we_send(s))
		r = diff_resolve(c->t, &range, s->seed, found->theirs, found->n_theirs, tell_path, &told);
	if (r == 0)
		r = tell_exceptions(c, found, &told);
	/* What is not told by now is absent here: these are the wants. */
	range.which = TREE_LIVE;
	c->m.pair.range = range;
	if (told.n)
		qsort(told.v, told.n, sizeof(*told.v), array_compare_u64);
	for (size_t i = 0; i < found->n_theirs && r == 0; i++)
		if (!among(told.v, told.n, found->theirs[i]))
			r = compose_want(c, found->theirs[i]);
	if (r == 0)
		r = compose_send(c, id, true);
	free(told.v);
	return r;
}

static struct ask *find_ask(struct session *s, enum ask_state state, uint32_t id)
{
	for (size_t i = 0; i < s->n_asks; i++)
		if (s->asks[i].state == state && s->asks[i].id == id)
			return &s->asks[i];
	return NULL;
}

int compare_entries(struct session *s, struct message_entries *m)
{
	struct ask *ask = find_ask(s, ASK_OUT, m->id);

	if (!ask || !s->diff)
		return session_protocol_error(s, "ENTRIES that nobody asked for");
	ask->state = ASK_ANSWERED;
	ask->entries = *m;
	memset(m, 0, sizeof(*m));
	return 0;
}

static int learn_entries(struct session *s, struct ask *ask)
{
	union message m = {.entries = ask->entries};
	const struct message_entries *e = &m.entries;
	struct diff_found found = {0};
	struct diff_range covered = ask->range;
	struct compose c;
	int r;

	ask->entries = (struct message_entries){0};
	ask->state = ASK_UNUSED;
	s->asks_out--;
	if (e->cut)
		covered.from = e->from;
	r = compose_begin(&c, s, MESSAGE_PAIR);
	if (r == 0)
		r = diff_learn(s->diff, c.t, &ask->range, e->v, e->n, e->cut, &e->from, &found);
	if (r == 0 && (found.n_ours || found.n_theirs)) {
		ask->state = ASK_PAIRED;
		ask->rows = found.n_ours + found.n_theirs;
		s->pair_rows += ask->rows;
		s->pairs_out++;
		r = send_pairs(s, &c, ask->id, &covered, &found);
	}
	diff_found_deinit(&found);
	compose_end(&c);
	message_deinit(MESSAGE_ENTRIES, &m);
	return r == -EBADMSG ? session_protocol_error(s, "ENTRIES that contradict themselves") : r;
}

/* Blocks that differ as a whole are thousands of rows each: were all that is asked for at a time told at once, the rows of
 * 100,000 files would wait in the taker's memory. */
static int learn_answers(struct session *s)
{
	int r = 0;

	for (size_t i = 0; i < s->n_asks && s->asks_out && r == 0; i++)
		if (s->asks[i].state == ASK_ANSWERED && (s->asks[i].range.level || s->pair_rows < PAIR_ROWS_MAX))
			r = learn_entries(s, &s->asks[i]);
	return r;
}

/* --- the answerer --- */

/* To be dealt with by compare_pump: takes the message over. */
static int keep_rows(struct session *s, uint8_t type, union message *m)
{
	struct pending_rows *rows;

	if (s->rows_n >= ROWS_MAX)
		return session_protocol_error(s, "rows without end");
	rows = calloc(1, sizeof(*rows));
	if (!rows)
		return -ENOMEM;
	s->rows_n++;
	rows->type = type;
	rows->m = *m;
	memset(m, 0, sizeof(*m));
	*s->rows_tail = rows;
	s->rows_tail = &rows->next;
	return 0;
}

static int answer_ask(struct session *s, const struct message_ask *m)
{
	int r = 0;

	for (size_t i = 0; i < m->n && r == 0; i++) {
		union message answer = {.entries = {.id = m->v[i].id}};
		struct index_txn *t = NULL;
		bool cut = false;

		r = index_begin_read(replica_index(s->replica), &t);
		if (r == 0)
			r = diff_answer(t, &m->v[i].range, s->seed, &answer.entries.v, &answer.entries.n, &cut,
				&answer.entries.from);
		index_abort(t);
		answer.entries.cut = cut;
		if (r == 0)
			r = session_send(s, MESSAGE_ENTRIES, &answer);
		free(answer.entries.v);
	}
	return r;
}

int compare_ask(struct session *s, union message *m)
{
	if (compare_we_walk(s) || !s->hello_received)
		return session_protocol_error(s, "ASK from the side that answers");
	/* What is pushed is about to be the same here. */
	return s->push ? keep_rows(s, MESSAGE_ASK, m) : answer_ask(s, &m->ask);
}

struct want_state {
	struct session *s;
	struct compose *c;
	struct shared_vector *k; /* the walker's, NULL if it does not send */
	uint32_t id;
};

/* A row of ours that the walker wants: it has nothing there. */
static int answer_want(const char *path, void *data)
{
	struct want_state *w = data;
	int r;

	r = compose_item(w->c, path);
	if (r == 0 && w->k)
		r = fetch_offer(w->s, path, NULL, w->k);
	if (r == 0 && compose_full(w->c))
		r = compose_send(w->c, w->id, false);
	return r;
}

/* All that a message shows, before the first of its rows is decided on. */
static int hear_all(struct session *s, const struct message_pair *p)
{
	int r = round_hear(s, &p->k);

	for (size_t i = 0; i < p->n_items && r == 0; i++)
		if (p->items[i].tell == MESSAGE_RECORD)
			r = round_hear(s, &p->items[i].record.vv);
	return r;
}

bool compare_introduced(const struct session *s, const struct record *record)
{
	const struct version_lineage *l = replica_lineage(s->replica);

	return version_vector_known(&record->vv, l) && version_dots_known(&record->dots, l) &&
	       version_dots_known(&record->adots, l) && version_dots_known(&record->mdots, l) &&
	       version_dots_known(&record->lost, l);
}

/* Offers for what the peer told of its rows. */
static int offer_items(struct session *s, struct message_pair *p, struct shared_vector *k)
{
	int r = 0;

	for (size_t i = 0; i < p->n_items && r == 0; i++) {
		struct message_item *item = &p->items[i];
		struct shared_vector *own = NULL;

		if (item->tell == MESSAGE_UNTOLD)
			continue;
		if (!k)
			return session_protocol_error(s, "rows without knowledge");
		if (!compare_introduced(s, &item->record) || !version_vector_known(&item->k, replica_lineage(s->replica)))
			return session_protocol_error(s, "a row of an incarnation that was not introduced");
		if (item->has_k) {
			own = shared_vector_new(&item->k);
			if (!own)
				return -ENOMEM;
		}
		r = fetch_offer(s, item->path, item->tell == MESSAGE_RECORD ? &item->record : NULL, own ? own : k);
		shared_vector_unref(own);
	}
	return r;
}

static int answer_pair(struct session *s, struct message_pair *p, struct shared_vector *k)
{
	struct want_state w = {.s = s, .k = k, .id = p->id};
	struct compose c;
	int r;

	r = compose_begin(&c, s, MESSAGE_ROWS);
	w.c = &c;
	for (size_t i = 0; i < p->n_items && r == 0; i++) {
		r = compose_item(&c, p->items[i].path);
		if (r == 0 && compose_full(&c))
			r = compose_send(&c, p->id, false);
	}
	if (r == 0 && p->n_wants)
		r = diff_resolve(c.t, &p->range, s->seed, p->wants, p->n_wants, answer_want, &w);
	if (r == 0)
		r = compose_send(&c, p->id, p->last);
	compose_end(&c);
	return r;
}

static int deal_with_rows(struct session *s, struct pending_rows *rows)
{
	struct message_pair *p = &rows->m.pair;
	struct shared_vector *k = NULL;
	int r = 0;

	if (p->has_k && s->peer_sends) {
		if (!version_vector_known(&p->k, replica_lineage(s->replica)))
			return session_protocol_error(s, "knowledge of an incarnation that was not introduced");
		k = shared_vector_new(&p->k);
		if (!k)
			return -ENOMEM;
	}
	r = hear_all(s, p);
	if (r == 0 && rows->type == MESSAGE_PAIR)
		r = answer_pair(s, p, k);
	if (r == 0)
		r = offer_items(s, p, k);
	if (r == 0 && rows->type == MESSAGE_ROWS && p->last) {
		struct ask *ask = find_ask(s, ASK_PAIRED, p->id);

		if (ask) {
			s->pairs_out--;
			s->pair_rows -= ask->rows;
			*ask = (struct ask){0};
		} else {
			r = session_protocol_error(s, "ROWS that nobody asked for");
		}
	}
	shared_vector_unref(k);
	return r;
}

static int deal_with_match(struct session *s, struct pending_rows *rows)
{
	const struct message_match *m = &rows->m.match;
	struct shared_vector *k;
	int r;

	if (!session_we_send(s) || !session_we_take(s))
		return session_protocol_error(s, "a MATCH that is not both ways");
	if (!version_vector_known(&m->k, replica_lineage(s->replica)))
		return session_protocol_error(s, "knowledge of an incarnation that was not introduced");
	r = round_hear(s, &m->k);
	if (r < 0)
		return r;
	k = shared_vector_new(&m->k);
	if (!k)
		return -ENOMEM;
	r = rows->type == MESSAGE_MATCH ? compare_match_answer(s, m, k) : compare_matched(s, m, k);
	shared_vector_unref(k);
	return r;
}

int compare_rows(struct session *s, uint8_t type, union message *m)
{
	bool walking = compare_we_walk(s);

	if (!s->hello_received || walking != (type == MESSAGE_ROWS || type == MESSAGE_MATCHED) || (walking && !s->pairs_out) || s->walk_received || s->equal)
		return session_protocol_error(s, "rows out of place");
	return keep_rows(s, type, m);
}

int compare_pump(struct session *s)
{
	int r = 0;

	while (r == 0 && s->rows_head && !s->lineage_jobs && s->backlog < SESSION_BACKLOG_MAX) {
		struct pending_rows *rows = s->rows_head;

		s->rows_head = rows->next;
		if (!s->rows_head)
			s->rows_tail = &s->rows_head;
		s->rows_n--;
		r = rows->type == MESSAGE_ASK ? answer_ask(s, &rows->m.ask)
		    : rows->type == MESSAGE_PAIR || rows->type == MESSAGE_ROWS ? deal_with_rows(s, rows) : deal_with_match(s, rows);
		message_deinit(rows->type, &rows->m);
		free(rows);
	}
	if (r == 0 && s->diff && !s->walk_sent)
		r = learn_answers(s);
	if (r == 0 && s->diff && !s->walk_sent)
		r = pump_asks(s);
	return r;
}
