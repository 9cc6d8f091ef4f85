/*
 * transfer/compare_match.c — MATCH and MATCHED: rows of two copies that never met, see merkle/match.h.
 *
 * The walker sends groups of its neighbours in a range, instead of asking for the range's entries. The answerer finds where in its
 * rows each group begins, and tells its own versions of those that are equal but for versions. The walker looks again, since its
 * own rows may have changed meanwhile: only where the digest is still the one that it sent, MATCHED is about what is here. What is
 * left over is asked for as usual. A record that is put together so is the one that the peer had in its transaction, whatever happens
 * here afterwards; all that follows is as if it had come in PAIR or ROWS.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "transfer/session_internal.h"

#define GROUP_ROWS 32
#define RANGE_ROWS_MAX (4 * MESSAGE_GROUPS_MAX * GROUP_ROWS) /* looked at for one MATCH */

DEFINE_CLEANUP(struct index_txn *, index_abort)

/* --- our rows, in groups --- */

struct reader {
	struct session *s;
	struct index_txn *t;
	struct index_cursor *cursor;
	struct knowledge knowledge;
	const struct diff_range *range;
	/* the live row under the cursor */
	bool end; /* there is none in the range */
	struct path_key key;
	char *path;
	struct row row;
	/* the group that is being put together */
	char *paths[GROUP_ROWS];
	struct record records[GROUP_ROWS];
	size_t n;
	size_t rows; /* that it has; as long as they are n, it can be told as a group */
	struct buf values;
};

static void reader_clear(struct reader *r)
{
	for (size_t i = 0; i < r->n; i++) {
		free(r->paths[i]);
		record_deinit(&r->records[i]);
	}
	r->n = r->rows = 0;
	buf_clear(&r->values);
}

static void reader_end(struct reader *r)
{
	reader_clear(r);
	buf_deinit(&r->values);
	free(r->path);
	row_deinit(&r->row);
	knowledge_deinit(&r->knowledge);
	index_cursor_close(r->cursor);
	index_abort(r->t);
}

/* The live row at or after the cursor. */
static int reader_look(struct reader *r)
{
	int e;

	for (;;) {
		free(steal(r->path));
		row_deinit(&r->row);
		e = index_cursor_get(r->cursor, &r->path, &r->row);
		if (e == INDEX_ABSENT) {
			r->end = true;
			return 0;
		}
		if (e != 0)
			return e;
		path_key(&r->key, r->path);
		r->end = !r->range->open && path_key_compare(&r->key, &r->range->to) >= 0;
		if (r->end || row_live(&r->row))
			return 0;
		e = index_cursor_next(r->cursor);
		if (e == INDEX_ABSENT) {
			r->end = true;
			return 0;
		}
		if (e != 0)
			return e;
	}
}

static int reader_next(struct reader *r)
{
	int e = index_cursor_next(r->cursor);

	r->end = e == INDEX_ABSENT;
	return r->end ? 0 : e < 0 ? e : reader_look(r);
}

static int reader_begin(struct reader *r, struct session *s, const struct diff_range *range)
{
	int e;

	*r = (struct reader){.s = s, .range = range};
	e = index_begin_read(replica_index(s->replica), &r->t);
	if (e == 0)
		e = replica_knowledge_read(r->t, &r->knowledge);
	/* What this transaction shows may use lineage that the peer does not have yet. */
	if (e == 0)
		e = round_send_lineage(s, false);
	if (e == 0)
		e = index_cursor_open(r->t, &r->cursor);
	if (e == 0)
		e = index_cursor_seek_key(r->cursor, &range->from);
	if (e == INDEX_ABSENT) {
		r->end = true;
		return 0;
	}
	return e ? e : reader_look(r);
}

/* Take the row under the cursor into the group. */
static void group_add(struct reader *r)
{
	bool fits = r->n == r->rows && r->n < GROUP_ROWS &&
		    knowledge_of(&r->knowledge, r->path) == &r->knowledge.k; /* else K of that path is to be told with the row */

	r->rows++;
	if (!fits)
		return;
	match_values(&r->values, r->path, &r->row.record);
	r->paths[r->n] = steal(r->path);
	r->records[r->n++] = r->row.record;
	memset(&r->row.record, 0, sizeof(r->row.record));
}

static bool group_whole(const struct reader *r)
{
	return r->n == r->rows;
}

static int group_digest(const struct reader *r, struct match_digest *ret)
{
	return match_digest(store_algorithm(replica_store(r->s->replica)), r->s->seed, &r->values, ret);
}

/* Our versions of the group, into g. If they are too long, nothing. */
static int group_versions(const struct reader *r, struct match_table *table, struct message_group *g)
{
	struct buf b = BUF_INIT;
	struct match_writer w = {.out = &b, .table = table};
	int e;

	for (size_t i = 0; i < r->n && b.len <= MESSAGE_VERSIONS_MAX; i++)
		match_add(&w, &r->records[i]);
	match_end(&w);
	e = buf_error(&b) == -EINVAL ? 0 : buf_error(&b);
	if (!buf_error(&b) && b.len <= MESSAGE_VERSIONS_MAX) {
		g->versions = steal(b.data);
		g->n = b.len;
	}
	buf_deinit(&b);
	return e;
}

/* The peer's records of the group, which has the same values here: offers. */
static int offer_group(struct reader *r, const struct message_group *g, const struct match_table *table, struct shared_vector *k)
{
	struct match_reader versions = {.c = cursor_over(g->versions, g->n), .table = table};
	int e = 0;

	for (size_t i = 0; i < r->n && e == 0; i++) {
		e = match_next(&versions, &r->records[i]);
		if (e == 0 && !compare_introduced(r->s, &r->records[i]))
			return session_protocol_error(r->s, "versions of an incarnation that was not introduced");
		if (e == 0)
			e = round_hear(r->s, &r->records[i].vv);
		if (e == 0)
			e = fetch_offer(r->s, r->paths[i], &r->records[i], k);
	}
	if (e == 0)
		e = match_finish(&versions);
	return e == -EBADMSG ? session_protocol_error(r->s, "versions that no records have") : e;
}

/* --- the walker --- */

/* Does `a` know of any event of an incarnation that b names, if only by its line? All are in the lineage. */
static int knows_any(const struct version_vector *a, const struct version_vector *b, const struct version_lineage *l, bool *ret)
{
	cleanup(version_dots_deinit) struct version_dots first = {0};
	cleanup_free bool *has = calloc(b->n + 1, sizeof(*has));
	int r = has ? 0 : -ENOMEM;

	for (size_t i = 0; i < b->n && r == 0; i++) {
		const struct version_incarnation *in = version_lineage_find(l, b->v[i].inc);

		r = in ? version_dots_add(&first, (struct version_dot){in->inc, in->from + 1}) : 0;
	}
	if (r == 0)
		version_vector_has_each(a, &first, l, has);
	for (size_t i = 0; i < first.n && r == 0; i++)
		*ret = *ret || has[i];
	return r;
}

/* Two that know nothing of each other's events, and have some. Each start of a replica that has events is an incarnation of its own: what
 * was known of the one before is a past in common. */
int compare_never_met(struct session *s, bool *ret)
{
	cleanup(index_abort_p) struct index_txn *t = NULL;
	cleanup(knowledge_deinit) struct knowledge own = {0};
	const struct version_vector *theirs = &s->peer_knowledge.k;
	const struct version_lineage *l = replica_lineage(s->replica);
	bool met = false;
	int r = index_begin_read(replica_index(s->replica), &t);

	if (r == 0)
		r = replica_knowledge_read(t, &own);
	*ret = r == 0 && own.k.n && theirs->n && session_we_send(s) && session_we_take(s);
	if (*ret)
		r = knows_any(&own.k, theirs, l, &met);
	if (*ret && r == 0)
		r = knows_any(theirs, &own.k, l, &met);
	*ret = *ret && !met;
	return r;
}

static struct match_asked *free_place(struct session *s)
{
	struct match_asked *m = s->matches;

	while (m->groups)
		m++;
	return m;
}

void compare_match_free(struct match_asked *m)
{
	free(m->groups);
	*m = (struct match_asked){0};
}

static int end_group(struct reader *r, struct match_asked *asked, struct message_match *m)
{
	struct message_group *g = &m->groups[m->n_groups++];
	struct match_group *kept = &asked->groups[asked->n++];
	int e = 0;

	g->separator = diff_separator(&kept->from, r->s->seed);
	if (group_whole(r)) {
		e = group_digest(r, &kept->digest);
		g->digest = kept->digest;
		if (e == 0)
			e = group_versions(r, &m->table, g);
	}
	reader_clear(r);
	return e;
}

static int fill_match(struct reader *r, struct match_asked *asked, struct message_match *m)
{
	int e = 0;

	while (!r->end && e == 0) {
		if (!r->rows)
			asked->groups[asked->n].from = r->key;
		group_add(r);
		e = reader_next(r);
		if (e == 0 && (r->rows == GROUP_ROWS || r->end))
			e = end_group(r, asked, m);
		if (m->n_groups == MESSAGE_GROUPS_MAX)
			break;
	}
	if (e == 0 && !r->end) { /* the rest is another one's */
		m->range.open = false;
		m->range.to = r->key;
	}
	return e;
}

int compare_match_ask(struct session *s, const struct diff_range *range)
{
	struct match_asked *asked = free_place(s);
	union message m = {.match = {.id = s->next_id++, .range = *range}};
	struct reader r;
	int e = reader_begin(&r, s, range);

	asked->groups = calloc(MESSAGE_GROUPS_MAX, sizeof(*asked->groups));
	m.match.groups = calloc(MESSAGE_GROUPS_MAX, sizeof(*m.match.groups));
	if (e == 0 && (!asked->groups || !m.match.groups))
		e = -ENOMEM;
	if (e == 0)
		e = fill_match(&r, asked, &m.match);
	if (e == 0 && !asked->n)
		e = MATCH_NOTHING;
	if (e == 0)
		e = version_vector_copy(&m.match.k, &r.knowledge.k);
	if (e == 0)
		e = session_send(s, MESSAGE_MATCH, &m);
	asked->id = m.match.id;
	asked->range = *range;
	asked->covered = m.match.range;
	if (e == 0)
		s->pairs_out++;
	else
		compare_match_free(asked);
	message_deinit(MESSAGE_MATCH, &m);
	reader_end(&r);
	return e;
}

/* What is left of the range, in ascending order. */
struct left {
	struct diff_range *v; /* owned */
	size_t n;
};

static void left_add(struct left *left, const struct match_asked *asked, size_t group)
{
	struct diff_range part = asked->covered;

	part.split = true;
	if (group)
		part.from = asked->groups[group].from;
	if (group + 1 < asked->n) {
		part.open = false;
		part.to = asked->groups[group + 1].from;
	}
	if (left->n && !left->v[left->n - 1].open && path_key_compare(&left->v[left->n - 1].to, &part.from) == 0) {
		left->v[left->n - 1].open = part.open;
		left->v[left->n - 1].to = part.to;
	} else {
		left->v[left->n++] = part;
	}
}

/* Our rows of a group, as they are now. */
static int read_group(struct reader *r, const struct match_asked *asked, size_t group)
{
	const struct path_key *to = group + 1 < asked->n ? &asked->groups[group + 1].from : NULL;
	int e = 0;

	reader_clear(r);
	while (e == 0 && !r->end && (!to || path_key_compare(&r->key, to) < 0)) {
		group_add(r);
		e = reader_next(r);
	}
	return e;
}

static int take_matched(struct reader *r, struct match_asked *asked, const struct message_match *m, struct shared_vector *k,
	struct left *left)
{
	struct match_digest now;
	int e = 0;

	for (size_t i = 0; i < asked->n && e == 0; i++) {
		e = read_group(r, asked, i);
		if (e == 0)
			e = group_digest(r, &now);
		if (e != 0)
			break;
		if (m->groups[i].n && group_whole(r) && match_digest_equal(&now, &asked->groups[i].digest))
			e = offer_group(r, &m->groups[i], &m->table, k);
		else
			left_add(left, asked, i);
	}
	return e;
}

int compare_matched(struct session *s, const struct message_match *m, struct shared_vector *k)
{
	struct match_asked *asked = s->matches;
	struct left left = {.v = calloc(MESSAGE_GROUPS_MAX + 1, sizeof(*left.v))};
	struct reader r;
	int e;

	while (asked < s->matches + MATCHES_MAX && !(asked->groups && asked->id == m->id && asked->n == m->n_groups))
		asked++;
	if (asked == s->matches + MATCHES_MAX || !left.v) {
		free(left.v);
		return asked == s->matches + MATCHES_MAX ? session_protocol_error(s, "MATCHED that nobody asked for") : -ENOMEM;
	}
	s->pairs_out--;
	e = reader_begin(&r, s, &asked->covered);
	if (e == 0)
		e = take_matched(&r, asked, m, k, &left);
	if (asked->covered.open != asked->range.open || path_key_compare(&asked->covered.to, &asked->range.to) != 0) {
		left.v[left.n] = asked->range;
		left.v[left.n++].from = asked->covered.to;
	}
	if (e == 0)
		e = diff_split(s->diff, &asked->range, left.v, left.n);
	reader_end(&r);
	free(left.v);
	compare_match_free(asked);
	return e;
}

/* --- the answerer --- */

struct answer {
	struct reader r;
	const struct message_match *m;
	struct message_match out;
	struct shared_vector *k;
	struct place { /* of a separator in m */
		uint64_t separator;
		size_t group;
	} places[MESSAGE_GROUPS_MAX];
	size_t group; /* the one that is being put together */
};

static int compare_places(const void *a, const void *b)
{
	return array_compare_u64(&((const struct place *)a)->separator, &((const struct place *)b)->separator);
}

/* The group that begins at the row under the cursor; 0: none after the present one does. */
static size_t group_beginning(const struct answer *a)
{
	struct place wanted = {.separator = diff_separator(&a->r.key, a->r.s->seed)};
	const struct place *found = bsearch(&wanted, a->places, a->m->n_groups, sizeof(wanted), compare_places);

	return found && found->group > a->group ? found->group : 0;
}

static int answer_group(struct answer *a)
{
	const struct message_group *theirs = &a->m->groups[a->group];
	struct message_group *ours = &a->out.groups[a->group];
	struct match_digest digest;
	int e;

	if (!theirs->n || !group_whole(&a->r))
		return 0;
	e = group_digest(&a->r, &digest);
	if (e != 0 || !match_digest_equal(&digest, &theirs->digest))
		return e;
	e = group_versions(&a->r, &a->out.table, ours);
	return e == 0 && ours->n ? offer_group(&a->r, theirs, &a->m->table, a->k) : e;
}

static int answer_rows(struct answer *a)
{
	size_t rows = 0, next;
	int e = 0;

	for (; !a->r.end && e == 0 && rows < RANGE_ROWS_MAX; rows++) {
		next = group_beginning(a);
		if (next) {
			e = answer_group(a);
			reader_clear(&a->r);
			a->group = next;
		}
		group_add(&a->r);
		if (e == 0)
			e = reader_next(&a->r);
	}
	return e == 0 && a->r.end ? answer_group(a) : e;
}

int compare_match_answer(struct session *s, const struct message_match *m, struct shared_vector *k)
{
	struct answer a = {.m = m, .k = k, .out = {.id = m->id, .n_groups = m->n_groups}};
	union message out;
	int e;

	for (size_t i = 0; i < m->n_groups; i++)
		a.places[i] = (struct place){m->groups[i].separator, i};
	qsort(a.places, m->n_groups, sizeof(a.places[0]), compare_places);
	e = reader_begin(&a.r, s, &m->range);
	a.out.groups = calloc(m->n_groups, sizeof(*a.out.groups));
	if (e == 0 && !a.out.groups)
		e = -ENOMEM;
	if (e == 0)
		e = answer_rows(&a);
	if (e == 0)
		e = version_vector_copy(&a.out.k, &a.r.knowledge.k);
	out.match = a.out;
	if (e == 0)
		e = session_send(s, MESSAGE_MATCHED, &out);
	message_deinit(MESSAGE_MATCHED, &out);
	reader_end(&a.r);
	return e;
}
