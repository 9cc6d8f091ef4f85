/* tests/unit/transfer/test_message.c — every message of the table, there and back, cut, damaged, and too much of it. */
#include <ctype.h>
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/unit/transfer/message_samples.h"

#define SAMPLES 40 /* of each type */

/* Exactly n bytes on the heap, so that a sanitizer sees the first byte too far. */
static int decode(uint8_t type, const uint8_t *p, size_t n, union message *ret)
{
	uint8_t *copy = malloc(n ? n : 1);
	int r;

	assert_non_null(copy);
	if (n)
		memcpy(copy, p, n);
	r = message_decode(type, copy, n, ret);
	if (r == 0 && type == MESSAGE_DATA)
		ret->data.bytes = p + (ret->data.bytes - copy); /* it pointed into the copy */
	for (size_t i = 0; r == 0 && type == MESSAGE_BULK && i < ret->bulk.n; i++)
		ret->bulk.v[i].bytes = p + (ret->bulk.v[i].bytes - copy);
	if (r == 0 && type == MESSAGE_PIECES)
		ret->pieces.bytes = p + (ret->pieces.bytes - copy);
	free(copy);
	return r;
}

/* What was accepted has one encoding: the one that came. */
static void accept_or_refuse(uint8_t type, const uint8_t *p, size_t n)
{
	struct buf again = BUF_INIT;
	union message m;
	int r = decode(type, p, n, &m);

	if (r < 0) {
		assert_int_equal(r, -EBADMSG);
		return;
	}
	assert_int_equal(message_encode(type, &m, &again), 0);
	assert_int_equal(again.len, n);
	if (n)
		assert_memory_equal(again.data, p, n);
	message_deinit(type, &m);
	buf_deinit(&again);
}

static bool same_text(const char *a, const char *b)
{
	return a && b && strcmp(a, b) == 0;
}

static bool same_range(const struct diff_range *a, const struct diff_range *b)
{
	return a->which == b->which && a->level == b->level && a->open == b->open && path_key_compare(&a->from, &b->from) == 0 &&
	       (a->open || path_key_compare(&a->to, &b->to) == 0);
}

static bool same_item(const struct message_item *a, const struct message_item *b)
{
	return same_text(a->path, b->path) && a->tell == b->tell && a->has_k == b->has_k && version_vector_equal(&a->k, &b->k) &&
	       (a->tell != MESSAGE_RECORD || (record_equal(&a->record, &b->record) && a->record.mtime_ns == b->record.mtime_ns));
}

static bool same_request(const struct message_request *a, const struct message_request *b)
{
	bool same = a->id == b->id && same_text(a->path, b->path) && content_equal(&a->content, &b->content) && a->n == b->n;

	for (size_t i = 0; same && i < a->n; i++)
		same = a->v[i].offset == b->v[i].offset && a->v[i].length == b->v[i].length;
	return same && a->n_names == b->n_names && a->piece_bits == b->piece_bits &&
	       (!a->n_names || memcmp(a->names, b->names, a->n_names * sizeof(*a->names)) == 0);
}

static bool same_pair(const struct message_pair *a, const struct message_pair *b)
{
	bool same = a->id == b->id && a->last == b->last && a->has_k == b->has_k && version_vector_equal(&a->k, &b->k) &&
		    a->n_items == b->n_items && a->n_wants == b->n_wants;

	for (size_t i = 0; same && i < a->n_items; i++)
		same = same_item(&a->items[i], &b->items[i]);
	if (same && a->n_wants)
		same = same_range(&a->range, &b->range) && memcmp(a->wants, b->wants, a->n_wants * sizeof(*a->wants)) == 0;
	return same;
}

static bool same_match(const struct message_match *a, const struct message_match *b)
{
	bool same = a->id == b->id && version_vector_equal(&a->k, &b->k) && a->table.n == b->table.n && a->n_groups == b->n_groups &&
		    same_range(&a->range, &b->range) && memcmp(a->table.inc, b->table.inc, a->table.n * sizeof(*a->table.inc)) == 0;

	for (size_t i = 0; same && i < a->n_groups; i++) {
		const struct message_group *g = &a->groups[i], *h = &b->groups[i];

		same = g->separator == h->separator && match_digest_equal(&g->digest, &h->digest) && g->n == h->n && !g->versions == !h->versions &&
		       (!g->n || memcmp(g->versions, h->versions, g->n) == 0);
	}
	return same;
}

static bool same_open(const struct message_open *a, const struct message_open *b)
{
	return same_text(a->place, b->place) && same_text(a->version, b->version) &&
	       a->create == b->create && a->algorithm == b->algorithm && a->sends == b->sends && a->takes == b->takes &&
	       a->live == b->live && a->confirmed == b->confirmed;
}

static bool same_greet(const struct message_greet *a, const struct message_greet *b)
{
	return a->replica == b->replica && memcmp(&a->folder, &b->folder, sizeof(a->folder)) == 0 && a->sends == b->sends && a->takes == b->takes && a->policy == b->policy &&
	       a->n_prefer == b->n_prefer && a->nonce == b->nonce && same_text(a->name, b->name) &&
	       same_text(a->version, b->version) && memcmp(a->prefer, b->prefer, a->n_prefer * sizeof(*a->prefer)) == 0;
}

static bool same_hello(const struct message_hello *a, const struct message_hello *b)
{
	return a->round == b->round && hash_equal(&a->root, &b->root) && a->live == b->live &&
	       a->lineage_digest == b->lineage_digest && a->ignore_digest == b->ignore_digest && a->held == b->held && a->unread == b->unread &&
	       a->own.inc == b->own.inc &&
	       a->own.counter == b->own.counter && a->has_knowledge == b->has_knowledge &&
	       knowledge_equal(&a->knowledge, &b->knowledge);
}

static bool same_data(const struct message_data *a, const struct message_data *b)
{
	return a->id == b->id && a->range == b->range && a->at == b->at && a->n == b->n && memcmp(a->bytes, b->bytes, a->n) == 0;
}

static bool same_push(const struct message_push *a, const struct message_push *b)
{
	bool same = same_hello(&a->hello, &b->hello) && a->n == b->n;

	for (size_t i = 0; same && i < a->n; i++) {
		const struct message_pushed *x = &a->rows[i], *y = &b->rows[i];

		same = same_text(x->path, y->path) && record_equal(&x->record, &y->record) && x->n == y->n && !x->bytes == !y->bytes &&
		       (!x->n || memcmp(x->bytes, y->bytes, x->n) == 0);
	}
	return same;
}

static bool same_nodes(const struct message_nodes *a, const struct message_nodes *b)
{
	bool same = a->id == b->id && a->n == b->n;

	for (size_t i = 0; same && i < a->n; i++)
		same = a->v[i].present == b->v[i].present && a->v[i].level == b->v[i].level &&
		       a->v[i].length == b->v[i].length && a->v[i].n == b->v[i].n &&
		       (!a->v[i].n || memcmp(a->v[i].payload, b->v[i].payload, a->v[i].n) == 0);
	return same;
}

static bool same_done(const struct message_done *a, const struct message_done *b)
{
	return a->round == b->round && hash_equal(&a->root, &b->root) && a->skipped == b->skipped &&
	       a->held == b->held && a->full == b->full && a->excepted == b->excepted && version_vector_equal(&a->k, &b->k);
}

static bool same_lists(uint8_t type, const union message *a, const union message *b)
{
	bool same = true;

	switch (type) {
	case MESSAGE_LINEAGE:
		return a->lineage.n == b->lineage.n && a->lineage.last == b->lineage.last &&
		       memcmp(a->lineage.v, b->lineage.v, a->lineage.n * sizeof(*a->lineage.v)) == 0;
	case MESSAGE_ASK:
		same = a->ask.n == b->ask.n;
		for (size_t i = 0; same && i < a->ask.n; i++)
			same = a->ask.v[i].id == b->ask.v[i].id && same_range(&a->ask.v[i].range, &b->ask.v[i].range);
		return same;
	case MESSAGE_ENTRIES:
		return a->entries.id == b->entries.id && a->entries.n == b->entries.n && a->entries.cut == b->entries.cut &&
		       path_key_compare(&a->entries.from, &b->entries.from) == 0 &&
		       memcmp(a->entries.v, b->entries.v, a->entries.n * sizeof(*a->entries.v)) == 0;
	case MESSAGE_NODES_NAMED:
		if (a->nodes_ask.n_names != b->nodes_ask.n_names ||
			memcmp(a->nodes_ask.names, b->nodes_ask.names, a->nodes_ask.n_names * sizeof(*a->nodes_ask.names)) != 0)
			return false;
		/* fall through */
	case MESSAGE_NODES_ASK:
		return a->nodes_ask.id == b->nodes_ask.id && a->nodes_ask.n == b->nodes_ask.n &&
		       memcmp(a->nodes_ask.v, b->nodes_ask.v, a->nodes_ask.n * HASH_BYTES) == 0;
	case MESSAGE_FETCH:
		same = a->fetch.n == b->fetch.n;
		for (size_t i = 0; same && i < a->fetch.n; i++)
			same = same_request(&a->fetch.v[i], &b->fetch.v[i]);
		return same;
	}
	return false;
}

static bool same(uint8_t type, const union message *a, const union message *b)
{
	switch (type) {
	case MESSAGE_OPEN:
		return same_open(&a->open, &b->open);
	case MESSAGE_GREET:
		return same_greet(&a->greet, &b->greet);
	case MESSAGE_HELLO:
		return same_hello(&a->hello, &b->hello);
	case MESSAGE_PUSH:
		return same_push(&a->push, &b->push);
	case MESSAGE_PAIR:
	case MESSAGE_ROWS:
		return same_pair(&a->pair, &b->pair);
	case MESSAGE_MATCH:
	case MESSAGE_MATCHED:
		return same_match(&a->match, &b->match);
	case MESSAGE_WALKED:
		return a->walked.round == b->walked.round;
	case MESSAGE_NODES:
	case MESSAGE_NODES_TOLD:
		return same_nodes(&a->nodes, &b->nodes);
	case MESSAGE_DATA:
		return same_data(&a->data, &b->data);
	case MESSAGE_BULK:
		for (size_t i = 0; i < a->bulk.n && i < b->bulk.n; i++)
			if (!same_data(&a->bulk.v[i], &b->bulk.v[i]))
				return false;
		return a->bulk.n == b->bulk.n;
	case MESSAGE_PIECES:
		return a->pieces.id == b->pieces.id && a->pieces.range == b->pieces.range && a->pieces.n == b->pieces.n &&
		       memcmp(a->pieces.bytes, b->pieces.bytes, a->pieces.n) == 0;
	case MESSAGE_GONE:
		return a->gone.id == b->gone.id && a->gone.reason == b->gone.reason;
	case MESSAGE_DONE:
		return same_done(&a->done, &b->done);
	case MESSAGE_KEEPALIVE:
	case MESSAGE_BYE:
		return true;
	case MESSAGE_FAIL:
		return a->fail.code == b->fail.code && same_text(a->fail.text, b->fail.text);
	default:
		return same_lists(type, a, b);
	}
}

static void test_table(void **state)
{
	(void)state;
	assert_null(message_info(0));
	assert_null(message_info(MESSAGE_TYPES));
	assert_null(message_info(255));
	for (uint8_t type = 1; type < MESSAGE_TYPES; type++) {
		const struct message_info *info = message_info(type);

		assert_non_null(info);
		assert_true(info->max_bytes > 0 && info->max_bytes <= MESSAGE_BYTES_MAX);
		assert_int_equal(message_max_bytes(type), info->max_bytes);
		for (uint8_t other = 1; other < type; other++)
			assert_string_not_equal(info->name, message_info(other)->name);
	}
	for (unsigned type = 0; type < 256; type++) {
		struct buf b = BUF_INIT;
		union message m = {0};

		if (message_info((uint8_t)type))
			continue;
		assert_int_equal(message_max_bytes((uint8_t)type), 0);
		assert_int_equal(message_decode((uint8_t)type, "", 0, &m), -EBADMSG);
		assert_int_equal(message_encode((uint8_t)type, &m, &b), -EINVAL);
	}
}

static void test_round_trip(void **state)
{
	struct sample s = {1};

	(void)state;
	for (uint8_t type = 1; type < MESSAGE_TYPES; type++) {
		for (int i = 0; i < SAMPLES * 5; i++) {
			struct buf b = BUF_INIT;
			union message m, got;

			sample_message(&s, type, &m);
			assert_int_equal(message_encode(type, &m, &b), 0);
			assert_true(b.len <= message_max_bytes(type));
			assert_int_equal(decode(type, b.data, b.len, &got), 0);
			if (!same(type, &m, &got))
				fail_msg("%s came back otherwise", message_info(type)->name);
			accept_or_refuse(type, b.data, b.len);
			message_deinit(type, &got);
			message_deinit(type, &m);
			buf_deinit(&b);
		}
	}
}

static void test_cut_and_overlong(void **state)
{
	struct sample s = {2};

	(void)state;
	for (uint8_t type = 1; type < MESSAGE_TYPES; type++) {
		for (int i = 0; i < SAMPLES; i++) {
			struct buf b = BUF_INIT;
			union message m;

			sample_message(&s, type, &m);
			assert_int_equal(message_encode(type, &m, &b), 0);
			message_deinit(type, &m);
			for (size_t n = 0; n < b.len; n++)
				assert_int_equal(decode(type, b.data, n, &m), -EBADMSG);
			for (unsigned last = 0; last < 256; last += 51) {
				put_u8(&b, (uint8_t)last);
				assert_int_equal(decode(type, b.data, b.len, &m), -EBADMSG);
				b.len--;
			}
			buf_deinit(&b);
		}
	}
}

static void test_damaged(void **state)
{
	struct sample s = {3};

	(void)state;
	for (uint8_t type = 1; type < MESSAGE_TYPES; type++) {
		for (int i = 0; i < SAMPLES; i++) {
			struct buf b = BUF_INIT;
			union message m;

			sample_message(&s, type, &m);
			assert_int_equal(message_encode(type, &m, &b), 0);
			message_deinit(type, &m);
			for (size_t n = 0; n < b.len * 8; n++) {
				b.data[n / 8] ^= (uint8_t)(1 << n % 8);
				accept_or_refuse(type, b.data, b.len);
				b.data[n / 8] ^= (uint8_t)(1 << n % 8);
			}
			for (int j = 0; j < 50 && b.len; j++) { /* several at once, and another type's */
				for (int k = 0; k < 3; k++)
					b.data[sample_below(&s, b.len)] = (uint8_t)sample_u64(&s);
				accept_or_refuse(type, b.data, b.len);
				accept_or_refuse((uint8_t)(1 + sample_below(&s, MESSAGE_TYPES - 1)), b.data, b.len);
			}
			buf_deinit(&b);
		}
	}
}

/* --- limits --- */

/* As long as announced, and nothing but zero bytes: which count is refused, is seen by the count alone. */
static void refuse_count(uint8_t type, const void *before, size_t n_before, uint64_t count)
{
	struct buf b = BUF_INIT;
	union message m;

	put_bytes(&b, before, n_before);
	put_varint(&b, count);
	memset(buf_reserve(&b, 60000), 0, 60000);
	assert_int_equal(message_decode(type, b.data, b.len, &m), -EBADMSG);
	buf_deinit(&b);
}

static void test_counts_are_bounded(void **state)
{
	static const uint8_t zeros[64];

	(void)state;
	for (int i = 0; i < 2; i++) { /* one more than may be, and all that a varint holds */
		refuse_count(MESSAGE_GREET, "\1\0\0\0\0\0\0\0\1\0\0\0\0\0\0\0\1\1", 18, i ? UINT64_MAX : STORE_FORMER_MAX + 1);
		refuse_count(MESSAGE_GREET, "\1\0\0\0\0\0\0\0\1\0\0\0\0\0\0\0\1\1\0\0\0\0\0\1\1", 26, i ? UINT64_MAX : MESSAGE_PREFER_MAX + 1);
		refuse_count(MESSAGE_LINEAGE, zeros, 0, i ? UINT64_MAX : MESSAGE_LINEAGE_MAX + 1);
		refuse_count(MESSAGE_ASK, zeros, 0, i ? UINT64_MAX : MESSAGE_ASK_MAX + 1);
		refuse_count(MESSAGE_ENTRIES, zeros, 4, i ? UINT64_MAX : DIFF_ENTRIES_MAX + 1);
		refuse_count(MESSAGE_PAIR, zeros, 6, i ? UINT64_MAX : MESSAGE_ITEMS_MAX + 1);
		refuse_count(MESSAGE_ROWS, zeros, 7, i ? UINT64_MAX : MESSAGE_WANTS_MAX + 1);
		refuse_count(MESSAGE_MATCH, "\0\0\0\0\0\0\0\1", 8, i ? UINT64_MAX : MESSAGE_GROUPS_MAX + 1);
		refuse_count(MESSAGE_MATCHED, zeros, 4, i ? UINT64_MAX : MESSAGE_GROUPS_MAX + 1);
		refuse_count(MESSAGE_MATCHED, zeros, 6, i ? UINT64_MAX : MATCH_INCARNATIONS_MAX + 1);
		refuse_count(MESSAGE_NODES_ASK, zeros, 4, i ? UINT64_MAX : MESSAGE_NODES_MAX + 1);
		refuse_count(MESSAGE_NODES, zeros, 4, i ? UINT64_MAX : MESSAGE_NODES_MAX + 1);
		refuse_count(MESSAGE_NODES_NAMED, zeros, 5, i ? UINT64_MAX : MESSAGE_NODE_NAMES_MAX + 1);
		refuse_count(MESSAGE_NODES_TOLD, "\0\0\0\0\1\2\1", 7, i ? UINT64_MAX : CHUNK_TREE_NODE_BYTES_MAX + 1);
		refuse_count(MESSAGE_FETCH, zeros, 0, i ? UINT64_MAX : MESSAGE_FETCH_MAX + 1);
		refuse_count(MESSAGE_DATA, zeros, 12, i ? UINT64_MAX : MESSAGE_DATA_BYTES_MAX + 1);
		refuse_count(MESSAGE_BULK, zeros, 0, i ? UINT64_MAX : MESSAGE_BULK_MAX + 1);
		refuse_count(MESSAGE_BULK, "\1\0\0\0\0\0\0\0\0\0\0\0\0", 13, i ? UINT64_MAX : MESSAGE_DATA_BYTES_MAX + 1);
		refuse_count(MESSAGE_PIECES, zeros, 8, i ? UINT64_MAX : MESSAGE_PIECES_BYTES_MAX + 1);
		refuse_count(MESSAGE_FAIL, zeros, 2, i ? UINT64_MAX : MESSAGE_TEXT_BYTES_MAX + 1);
		refuse_count(MESSAGE_OPEN, zeros, 0, i ? UINT64_MAX : FILE_PATH_BYTES_MAX + 1);
	}
}

static void test_longest(void **state)
{
	(void)state;
	for (uint8_t type = 1; type < MESSAGE_TYPES; type++) {
		size_t n = message_max_bytes(type) + 1;
		uint8_t *p = calloc(1, n);
		union message m;

		assert_non_null(p);
		assert_int_equal(message_decode(type, p, n, &m), -EBADMSG);
		free(p);
	}
}

/* What may be sent must fit: the most of each list, in its longest encoding. */
static void fits(uint8_t type, union message *m)
{
	struct buf b = BUF_INIT;
	union message got;

	assert_int_equal(message_encode(type, m, &b), 0);
	assert_true(b.len <= message_max_bytes(type));
	assert_int_equal(decode(type, b.data, b.len, &got), 0);
	message_deinit(type, &got);
	message_deinit(type, m);
	buf_deinit(&b);
}

static char *long_path(void)
{
	char *path = sample_array(FILE_PATH_BYTES_MAX + 1, 1);

	for (size_t i = 0; i < FILE_PATH_BYTES_MAX; i++)
		path[i] = i % 200 == 199 ? '/' : 'x';
	assert_true(path_valid(path));
	return path;
}

static char *long_text(size_t n)
{
	char *text = sample_array(n + 1, 1);

	memset(text, 'x', n);
	return text;
}

static void test_most_of_each_fits(void **state)
{
	struct sample s = {4};
	union message m;
	char *path = long_path();

	(void)state;
	memset(&m, 0, sizeof(m));
	m.open.place = strdup(path);
	m.open.version = long_text(MESSAGE_NAME_BYTES_MAX);
	fits(MESSAGE_OPEN, &m);

	sample_message(&s, MESSAGE_GREET, &m);
	free(m.greet.prefer);
	free(m.greet.name);
	m.greet.folder.n_former = STORE_FORMER_MAX;
	m.greet.n_prefer = MESSAGE_PREFER_MAX;
	m.greet.prefer = sample_array(MESSAGE_PREFER_MAX, 8);
	m.greet.name = long_text(MESSAGE_NAME_BYTES_MAX);
	fits(MESSAGE_GREET, &m);

	m.lineage.n = MESSAGE_LINEAGE_MAX;
	m.lineage.v = sample_array(m.lineage.n, sizeof(*m.lineage.v));
	for (size_t i = 0; i < m.lineage.n; i++)
		m.lineage.v[i] = (struct version_incarnation){i + 2, 1, VERSION_COUNTER_MAX, UINT64_MAX};
	fits(MESSAGE_LINEAGE, &m);

	m.ask.n = MESSAGE_ASK_MAX;
	m.ask.v = sample_array(m.ask.n, sizeof(*m.ask.v));
	for (size_t i = 0; i < m.ask.n; i++) {
		path_key(&m.ask.v[i].range.from, path);
		path_key(&m.ask.v[i].range.to, path);
	}
	fits(MESSAGE_ASK, &m);

	m.entries.n = DIFF_ENTRIES_MAX;
	m.entries.v = sample_array(m.entries.n, sizeof(*m.entries.v));
	m.entries.cut = 1;
	path_key(&m.entries.from, path);
	fits(MESSAGE_ENTRIES, &m);

	for (uint8_t type = MESSAGE_MATCH; type <= MESSAGE_MATCHED; type++) {
		sample_vector(&s, &m.match.k, VERSION_ENTRIES_MAX);
		path_key(&m.match.range.from, path);
		path_key(&m.match.range.to, path);
		m.match.table.n = MATCH_INCARNATIONS_MAX;
		m.match.table.inc = sample_array(m.match.table.n, sizeof(*m.match.table.inc));
		m.match.n_groups = MESSAGE_GROUPS_MAX;
		m.match.groups = sample_array(m.match.n_groups, sizeof(*m.match.groups));
		for (size_t i = 0; i < m.match.n_groups; i++) {
			m.match.groups[i].n = MESSAGE_VERSIONS_MAX;
			m.match.groups[i].versions = sample_array(MESSAGE_VERSIONS_MAX, 1);
		}
		fits(type, &m);
	}

	m.nodes_ask.n = MESSAGE_NODES_MAX;
	m.nodes_ask.v = sample_array(m.nodes_ask.n, HASH_BYTES);
	fits(MESSAGE_NODES_ASK, &m);

	m.nodes_ask.n = MESSAGE_NODES_MAX;
	m.nodes_ask.v = sample_array(m.nodes_ask.n, HASH_BYTES);
	m.nodes_ask.n_names = MESSAGE_NODE_NAMES_MAX;
	m.nodes_ask.names = sample_array(m.nodes_ask.n_names, sizeof(*m.nodes_ask.names));
	fits(MESSAGE_NODES_NAMED, &m);

	m.nodes.n = MESSAGE_NODES_MAX;
	m.nodes.v = sample_array(m.nodes.n, sizeof(*m.nodes.v));
	for (size_t i = 0; i < m.nodes.n; i++)
		m.nodes.v[i] = (struct message_node){1, 1, 0, sample_array(CHUNK_TREE_NODE_BYTES_MAX, 1), CHUNK_TREE_NODE_BYTES_MAX};
	fits(MESSAGE_NODES, &m);

	m.nodes.n = MESSAGE_NODES_MAX;
	m.nodes.v = sample_array(m.nodes.n, sizeof(*m.nodes.v));
	for (size_t i = 0; i < m.nodes.n; i++)
		m.nodes.v[i] = (struct message_node){2, 1, CHUNK_TREE_NODE_BYTES_MAX, sample_array(CHUNK_TREE_NODE_BYTES_MAX, 1), CHUNK_TREE_NODE_BYTES_MAX};
	fits(MESSAGE_NODES_TOLD, &m);

	m.fetch.n = MESSAGE_FETCH_MAX;
	m.fetch.v = sample_array(m.fetch.n, sizeof(*m.fetch.v));
	for (size_t i = 0; i < m.fetch.n; i++) {
		struct message_request *r = &m.fetch.v[i];

		*r = (struct message_request){.path = strdup(path), .content.size = INT64_MAX, .n = MESSAGE_RANGES_MAX};
		r->v = sample_array(r->n, sizeof(*r->v));
		for (size_t j = 0; j < r->n; j++)
			r->v[j] = (struct message_fetch_range){INT64_MAX - CHUNK_BYTES_MAX, MESSAGE_REQUEST_BYTES_MAX / MESSAGE_RANGES_MAX};
		r->n_names = MESSAGE_NAMES_MAX / m.fetch.n;
		r->piece_bits = PIECE_BITS_MAX;
		r->names = sample_array(r->n_names, sizeof(*r->names));
	}
	fits(MESSAGE_FETCH, &m);

	memset(&m, 0, sizeof(m));
	sample_vector(&s, &m.done.k, VERSION_ENTRIES_MAX);
	fits(MESSAGE_DONE, &m);

	m.fail.text = long_text(MESSAGE_TEXT_BYTES_MAX);
	fits(MESSAGE_FAIL, &m);
	free(path);
}

static void test_data_of_full_length(void **state)
{
	uint8_t *bytes = calloc(1, MESSAGE_DATA_BYTES_MAX);
	union message m = {.data = {.id = UINT32_MAX, .range = UINT32_MAX, .at = UINT32_MAX, .bytes = bytes}};

	(void)state;
	m.data.n = MESSAGE_DATA_BYTES_MAX;
	fits(MESSAGE_DATA, &m);
	m.bulk = (struct message_bulk){sample_array(MESSAGE_BULK_MAX, sizeof(*m.bulk.v)), MESSAGE_BULK_MAX};
	for (size_t i = 0; i < MESSAGE_BULK_MAX; i++)
		m.bulk.v[i] = (struct message_data){UINT32_MAX, UINT32_MAX, UINT32_MAX, bytes, MESSAGE_BULK_BYTES_MAX / MESSAGE_BULK_MAX};
	fits(MESSAGE_BULK, &m);
	free(bytes);
	bytes = calloc(1, MESSAGE_PIECES_BYTES_MAX);
	m.pieces = (struct message_pieces){UINT32_MAX, UINT32_MAX, bytes, MESSAGE_PIECES_BYTES_MAX};
	fits(MESSAGE_PIECES, &m);
	free(bytes);
}

/* --- values that may not be --- */

static void refuse(uint8_t type, union message *m)
{
	struct buf b = BUF_INIT;
	union message got;

	if (message_encode(type, m, &b) == 0)
		assert_int_equal(decode(type, b.data, b.len, &got), -EBADMSG);
	message_deinit(type, m);
	buf_deinit(&b);
}

static void test_values(void **state)
{
	static const char *const paths[] = {"", "/", "/a", "a/", "a//b", ".", "..", "a/..", "a/../b", ".syncd", "a/.syncd/x", ".SYNCD"};
	struct sample s = {5};
	union message m;

	(void)state;
	for (size_t i = 0; i < sizeof(paths) / sizeof(*paths); i++) {
		memset(&m, 0, sizeof(m));
		m.fetch.n = 1;
		m.fetch.v = sample_array(1, sizeof(*m.fetch.v));
		m.fetch.v->path = strdup(paths[i]);
		refuse(MESSAGE_FETCH, &m);
		m.pair.n_items = 1;
		m.pair.items = sample_array(1, sizeof(*m.pair.items));
		m.pair.items->path = strdup(paths[i]);
		refuse(MESSAGE_ROWS, &m);
	}
	sample_message(&s, MESSAGE_OPEN, &m);
	m.open.create = 2;
	refuse(MESSAGE_OPEN, &m);
	sample_message(&s, MESSAGE_OPEN, &m);
	m.open.algorithm = 4;
	refuse(MESSAGE_OPEN, &m);
	sample_message(&s, MESSAGE_GREET, &m);
	m.greet.replica = 0;
	refuse(MESSAGE_GREET, &m);
	sample_message(&s, MESSAGE_GREET, &m);
	m.greet.folder.id = 0;
	refuse(MESSAGE_GREET, &m);
	sample_message(&s, MESSAGE_GREET, &m);
	m.greet.folder.algorithm = 0;
	refuse(MESSAGE_GREET, &m);
	sample_message(&s, MESSAGE_HELLO, &m);
	m.hello.own.counter = VERSION_COUNTER_MAX + 1;
	refuse(MESSAGE_HELLO, &m);
	m.ask.n = 1;
	m.ask.v = sample_array(1, sizeof(*m.ask.v));
	m.ask.v->range.level = TREE_LEVELS + 1;
	refuse(MESSAGE_ASK, &m);
	m.ask.n = 1;
	m.ask.v = sample_array(1, sizeof(*m.ask.v));
	m.ask.v->range.which = (enum tree_which)(TREE_TOMBSTONES + 1);
	refuse(MESSAGE_ASK, &m);
	m.pair.n_items = 1;
	m.pair.items = sample_array(1, sizeof(*m.pair.items));
	m.pair.items->path = strdup("a");
	m.pair.items->tell = MESSAGE_UNTOLD + 1;
	refuse(MESSAGE_PAIR, &m);
}

/* One with n rows, of one byte each. */
static void push_of(union message *m, size_t n)
{
	struct sample s = {6};

	memset(m, 0, sizeof(*m));
	sample_push(&s, &m->push);
	for (size_t i = 0; i < m->push.n; i++) {
		free(m->push.rows[i].path);
		record_deinit(&m->push.rows[i].record);
		free(m->push.rows[i].bytes);
	}
	free(m->push.rows);
	m->push.n = n;
	m->push.rows = sample_array(n, sizeof(*m->push.rows));
	for (size_t i = 0; i < n; i++) {
		struct message_pushed *row = &m->push.rows[i];
		char path[32];

		snprintf(path, sizeof(path), "p%05zu", i);
		row->path = strdup(path);
		do {
			record_deinit(&row->record);
			sample_record(&s, &row->record);
		} while (row->record.kind != RECORD_FILE);
		row->record.content = (struct content){.size = 1, .chunk_bits = chunk_bits_for_size(1)};
		row->n = 1;
		row->bytes = sample_array(1, 1);
	}
}

static void test_pushed_values(void **state)
{
	union message m;

	(void)state;
	push_of(&m, MESSAGE_PUSHED_MAX);
	fits(MESSAGE_PUSH, &m);
	push_of(&m, MESSAGE_PUSHED_MAX + 1);
	refuse(MESSAGE_PUSH, &m);
	push_of(&m, 0);
	refuse(MESSAGE_PUSH, &m);
	push_of(&m, 2); /* a path twice, or out of order */
	m.push.rows[0].path[5] = '1';
	refuse(MESSAGE_PUSH, &m);
	push_of(&m, 2);
	m.push.rows[0].path[5] = '2';
	refuse(MESSAGE_PUSH, &m);
	push_of(&m, 1); /* other bytes than the record's */
	m.push.rows[0].record.content.size = 2;
	refuse(MESSAGE_PUSH, &m);
	push_of(&m, 1);
	m.push.hello.round = 0;
	refuse(MESSAGE_PUSH, &m);
	push_of(&m, 1);
	knowledge_deinit(&m.push.hello.knowledge);
	m.push.hello.has_knowledge = 0;
	refuse(MESSAGE_PUSH, &m);
	for (size_t more = 0; more < 2; more++) { /* content that is longer is to be asked for */
		push_of(&m, 1);
		free(m.push.rows[0].bytes);
		m.push.rows[0].n = m.push.rows[0].record.content.size = MESSAGE_SMALL_BYTES_MAX + more;
		m.push.rows[0].bytes = sample_array(m.push.rows[0].n, 1);
		(more ? refuse : fits)(MESSAGE_PUSH, &m);
	}
}

static void refuse_ranges(uint64_t size, uint64_t offset, uint32_t length, size_t n)
{
	union message m = {.fetch = {.n = 1}};
	struct message_request *r = m.fetch.v = sample_array(1, sizeof(*r));

	*r = (struct message_request){.path = strdup("a"), .content.size = size, .n = n};
	r->v = sample_array(n, sizeof(*r->v));
	for (size_t i = 0; i < n; i++)
		r->v[i] = (struct message_fetch_range){offset, length};
	refuse(MESSAGE_FETCH, &m);
}

static void test_ranges(void **state)
{
	(void)state;
	refuse_ranges(100, 101, 0, 1);
	refuse_ranges(100, 90, 11, 1);
	refuse_ranges(UINT64_MAX, UINT64_MAX, 1, 1);
	refuse_ranges(UINT64_MAX, 0, CHUNK_BYTES_MAX + 1, 1);
	refuse_ranges(UINT64_MAX, 0, CHUNK_BYTES_MAX, MESSAGE_REQUEST_BYTES_MAX / CHUNK_BYTES_MAX + 1);
}

static void refuse_names(size_t requests, size_t names, uint8_t bits)
{
	union message m = {.fetch = {.n = requests}};

	m.fetch.v = sample_array(requests, sizeof(*m.fetch.v));
	for (size_t i = 0; i < requests; i++) {
		struct message_request *r = &m.fetch.v[i];

		*r = (struct message_request){.path = strdup("a"), .n_names = names, .piece_bits = bits};
		r->names = sample_array(names, sizeof(*r->names));
	}
	refuse(MESSAGE_FETCH, &m);
}

static void test_names(void **state)
{
	(void)state;
	refuse_names(1, 1, PIECE_BITS_MIN - 1);
	refuse_names(1, 1, PIECE_BITS_MAX + 1);
	refuse_names(1, PIECES_NAMES_MAX + 1, PIECE_BITS_MIN);
	refuse_names(MESSAGE_NAMES_MAX / PIECES_NAMES_MAX + 1, PIECES_NAMES_MAX, PIECE_BITS_MIN);
}

/* --- the fuzzer's seeds --- */

#define SEEDS "tests/fuzz/corpus/message"

/* SEEDS_WRITE=1: when a message's format has changed. */
static void write_seed(uint8_t type, unsigned number, const char *file)
{
	struct sample sample = {type * 100 + number};
	struct buf b = BUF_INIT;
	union message m;
	FILE *f = fopen(file, "wb");

	sample_message(&sample, type, &m);
	put_u8(&b, type);
	assert_int_equal(message_encode(type, &m, &b), 0);
	assert_non_null(f);
	assert_int_equal(fwrite(b.data, 1, b.len, f), b.len);
	assert_int_equal(fclose(f), 0);
	message_deinit(type, &m);
	buf_deinit(&b);
}

static void read_seed(uint8_t type, const char *file)
{
	static uint8_t bytes[1 + MESSAGE_BYTES_MAX];
	FILE *f = fopen(file, "rb");
	union message m;
	size_t n;

	if (!f)
		fail_msg("%s is not there: SEEDS_WRITE=1 makes it", file);
	n = fread(bytes, 1, sizeof(bytes), f);
	fclose(f);
	if (n < 1 || bytes[0] != type || decode(type, bytes + 1, n - 1, &m) < 0)
		fail_msg("%s is no %s any more: SEEDS_WRITE=1 makes it anew", file, message_info(type)->name);
	message_deinit(type, &m);
}

/* A fuzzer that begins with what is refused at its first byte finds nothing. */
static void test_seeds(void **state)
{
	char file[200];

	(void)state;
	for (uint8_t type = 1; type < MESSAGE_TYPES; type++)
		for (unsigned i = 0; i < 2; i++) {
			size_t at = strlen(SEEDS "/");

			snprintf(file, sizeof(file), SEEDS "/%s-%u", message_info(type)->name, i);
			for (; file[at]; at++)
				file[at] = (char)tolower(file[at]);
			if (getenv("SEEDS_WRITE"))
				write_seed(type, i, file);
			read_seed(type, file);
		}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_table),
		cmocka_unit_test(test_round_trip),
		cmocka_unit_test(test_cut_and_overlong),
		cmocka_unit_test(test_damaged),
		cmocka_unit_test(test_counts_are_bounded),
		cmocka_unit_test(test_longest),
		cmocka_unit_test(test_most_of_each_fits),
		cmocka_unit_test(test_data_of_full_length),
		cmocka_unit_test(test_values),
		cmocka_unit_test(test_pushed_values),
		cmocka_unit_test(test_ranges),
		cmocka_unit_test(test_names),
		cmocka_unit_test(test_seeds),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
