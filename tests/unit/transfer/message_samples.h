/* tests/unit/transfer/message_samples.h — random messages of every type, each one that may be. */
#ifndef TESTS_UNIT_TRANSFER_MESSAGE_SAMPLES_H
#define TESTS_UNIT_TRANSFER_MESSAGE_SAMPLES_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "merkle/chunk_tree.h"
#include "tests/random.h"
#include "transfer/message.h"

struct sample {
	uint64_t random;
};

static inline uint64_t sample_u64(struct sample *s)
{
	return test_random(&s->random);
}

static inline size_t sample_below(struct sample *s, size_t n)
{
	return n ? (size_t)(sample_u64(s) % n) : 0;
}

static inline uint8_t sample_flag(struct sample *s)
{
	return sample_u64(s) & 1;
}

/* Short and long numbers alike. */
static inline uint64_t sample_number(struct sample *s)
{
	return sample_u64(s) >> sample_below(s, 64);
}

static inline void sample_bytes(struct sample *s, void *ret, size_t n)
{
	uint8_t *p = ret;

	while (n--)
		*p++ = (uint8_t)sample_u64(s);
}

static inline void *sample_array(size_t n, size_t bytes)
{
	void *v = calloc(n ? n : 1, bytes);

	if (!v)
		abort();
	return v;
}

/* Any bytes but NUL. */
static inline char *sample_text(struct sample *s, size_t max)
{
	size_t n = sample_below(s, max + 1);
	char *text = sample_array(n + 1, 1);

	for (size_t i = 0; i < n; i++)
		text[i] = (char)(1 + sample_below(s, 255));
	return text;
}

static inline char *sample_path(struct sample *s)
{
	size_t depth = 1 + sample_below(s, 4), n = 0;
	char *path = sample_array(64, 1);

	for (size_t i = 0; i < depth; i++)
		n += (size_t)snprintf(path + n, 64 - n, "%s%c%u", i ? "/" : "", (int)('a' + sample_below(s, 26)),
			(unsigned)sample_below(s, 1000));
	return path;
}

static inline struct version_dot sample_dot(struct sample *s)
{
	return (struct version_dot){sample_u64(s) | 1, 1 + sample_number(s) % VERSION_COUNTER_MAX};
}

static inline void sample_vector(struct sample *s, struct version_vector *ret, size_t n)
{
	while (n--)
		if (version_vector_raise(ret, sample_dot(s), NULL) < 0)
			abort();
}

/* A dot of vv into each set. */
static inline void sample_dots(struct sample *s, const struct version_vector *vv, struct version_dots *ret, size_t n)
{
	while (n--)
		if (version_dots_add(ret, vv->v[sample_below(s, vv->n)]) < 0)
			abort();
}

static inline void sample_content(struct sample *s, struct content *ret)
{
	bool big = sample_flag(s);

	sample_bytes(s, &ret->root, sizeof(ret->root));
	ret->size = big ? CHUNK_SINGLE_BYTES_MAX + 1 + sample_below(s, 1 << 30) : sample_below(s, CHUNK_SINGLE_BYTES_MAX);
	ret->chunk_bits = chunk_bits_for_size(ret->size);
	ret->height = big;
}

static inline void sample_record(struct sample *s, struct record *ret)
{
	size_t kind = sample_below(s, 4);

	*ret = (struct record){.live = kind != 0, .kind = (uint8_t)kind};
	sample_vector(s, &ret->vv, 1 + sample_below(s, 5));
	sample_dots(s, &ret->vv, &ret->dots, 1 + sample_below(s, 2));
	if (sample_flag(s))
		sample_dots(s, &ret->vv, &ret->lost, 1);
	if (!kind)
		return;
	sample_dots(s, &ret->vv, &ret->adots, 1);
	if (kind != RECORD_DIRECTORY)
		sample_dots(s, &ret->vv, &ret->mdots, 1);
	ret->mode = kind == RECORD_SYMLINK ? 0777 : (uint16_t)sample_below(s, 010000);
	ret->uid = (uint32_t)sample_u64(s);
	ret->gid = (uint32_t)sample_u64(s);
	ret->mtime_ns = (int64_t)sample_u64(s);
	if (kind == RECORD_FILE)
		sample_content(s, &ret->content);
	if (kind == RECORD_SYMLINK) {
		ret->target = sample_text(s, 40);
		if (!ret->target[0])
			free(ret->target), ret->target = strdup(".");
		ret->content.size = strlen(ret->target);
		sample_bytes(s, &ret->content.root, sizeof(ret->content.root));
	}
}

static inline void sample_key(struct sample *s, struct path_key *ret)
{
	char *path = sample_path(s);

	path_key(ret, sample_flag(s) ? path : "");
	free(path);
}

static inline void sample_range(struct sample *s, struct diff_range *ret)
{
	ret->which = sample_flag(s) ? TREE_TOMBSTONES : TREE_LIVE;
	ret->level = (uint8_t)sample_below(s, TREE_LEVELS);
	sample_key(s, &ret->from);
	ret->open = sample_flag(s);
	if (!ret->open)
		sample_key(s, &ret->to);
}

static inline void sample_knowledge(struct sample *s, struct knowledge *ret)
{
	sample_vector(s, &ret->k, sample_below(s, 6));
	for (size_t n = sample_below(s, 4); n--;) {
		char *path = sample_path(s);

		if (knowledge_forget(ret, path) < 0)
			abort();
		free(path);
	}
	for (size_t i = 0; i < ret->n; i++)
		sample_vector(s, &ret->exceptions[i].vector, sample_below(s, 3));
}

static inline void sample_pair(struct sample *s, struct message_pair *p)
{
	p->id = (uint32_t)sample_u64(s);
	p->last = sample_flag(s);
	p->has_k = sample_flag(s);
	if (p->has_k)
		sample_vector(s, &p->k, sample_below(s, 4));
	p->n_items = sample_below(s, 5);
	p->items = sample_array(p->n_items, sizeof(*p->items));
	for (size_t i = 0; i < p->n_items; i++) {
		struct message_item *item = &p->items[i];

		item->path = sample_path(s);
		item->tell = (uint8_t)sample_below(s, 3);
		if (item->tell == MESSAGE_RECORD)
			sample_record(s, &item->record);
		item->has_k = sample_flag(s);
		if (item->has_k)
			sample_vector(s, &item->k, sample_below(s, 3));
	}
	p->n_wants = sample_below(s, 5);
	if (!p->n_wants)
		return;
	sample_range(s, &p->range);
	p->wants = sample_array(p->n_wants, sizeof(*p->wants));
	for (size_t i = 0; i < p->n_wants; i++)
		p->wants[i] = sample_u64(s);
}

static inline void sample_fetch(struct sample *s, struct message_fetch *f)
{
	f->n = sample_below(s, 4);
	f->v = sample_array(f->n, sizeof(*f->v));
	for (size_t i = 0; i < f->n; i++) {
		struct message_request *r = &f->v[i];

		r->id = (uint32_t)sample_u64(s);
		r->path = sample_path(s);
		sample_content(s, &r->content);
		r->n = sample_below(s, 4);
		r->v = sample_array(r->n, sizeof(*r->v));
		for (size_t j = 0; j < r->n; j++) {
			uint64_t left;

			r->v[j].offset = sample_below(s, r->content.size + 1);
			left = r->content.size - r->v[j].offset;
			r->v[j].length = (uint32_t)sample_below(s, (left < 65536 ? left : 65536) + 1);
		}
		r->n_names = sample_below(s, 4);
		if (!r->n_names)
			continue;
		r->piece_bits = (uint8_t)(PIECE_BITS_MIN + sample_below(s, PIECE_BITS_MAX - PIECE_BITS_MIN + 1));
		r->names = sample_array(r->n_names, sizeof(*r->names));
		sample_bytes(s, r->names, r->n_names * sizeof(*r->names));
	}
}

static inline void sample_groups(struct sample *s, struct message_match *m, bool asks)
{
	m->id = (uint32_t)sample_u64(s);
	sample_vector(s, &m->k, sample_below(s, 3));
	m->table.n = sample_below(s, 3);
	m->table.inc = sample_array(m->table.n, sizeof(*m->table.inc));
	sample_bytes(s, m->table.inc, m->table.n * sizeof(*m->table.inc));
	m->n_groups = asks + sample_below(s, 4);
	m->groups = sample_array(m->n_groups, sizeof(*m->groups));
	for (size_t i = 0; i < m->n_groups; i++) {
		struct message_group *g = &m->groups[i];

		g->n = sample_below(s, 20);
		g->versions = g->n ? sample_array(g->n, 1) : NULL;
		sample_bytes(s, g->versions, g->n);
		if (!asks)
			continue;
		g->separator = sample_u64(s);
		sample_bytes(s, g->digest.bytes, sizeof(g->digest.bytes));
	}
	if (!asks)
		return;
	sample_range(s, &m->range);
	m->range.which = TREE_LIVE;
	m->range.level = 0;
}

/* What the caller holds after it: message_deinit(). DATA's and PIECES' bytes point to static memory. */
static inline void sample_hello(struct sample *s, struct message_hello *ret, uint8_t has_knowledge)
{
	*ret = (struct message_hello){
		.round = (uint32_t)sample_u64(s),
		.live = sample_number(s),
		.lineage_digest = sample_u64(s),
		.ignore_digest = sample_u64(s),
		.held = sample_number(s),
		.own = sample_dot(s),
		.has_knowledge = has_knowledge,
	};
	sample_bytes(s, &ret->root, HASH_BYTES);
	if (has_knowledge)
		sample_knowledge(s, &ret->knowledge);
	if (sample_flag(s))
		ret->unread = sample_number(s);
}

static inline void sample_push(struct sample *s, struct message_push *ret)
{
	sample_hello(s, &ret->hello, 1);
	ret->hello.round |= 2;
	ret->n = 1 + sample_below(s, 3);
	ret->rows = sample_array(ret->n, sizeof(*ret->rows));
	for (size_t i = 0; i < ret->n; i++) {
		struct message_pushed *row = &ret->rows[i];

		row->path = sample_path(s);
		row->path[0] = (char)('a' + i); /* in order */
		sample_record(s, &row->record);
		if (!row->record.live || row->record.kind != RECORD_FILE || !sample_flag(s))
			continue;
		row->n = row->record.content.size = 1 + sample_below(s, 40);
		row->bytes = sample_array(row->n, 1);
		sample_bytes(s, row->bytes, row->n);
		row->record.content.chunk_bits = chunk_bits_for_size(row->n);
		row->record.content.height = 0;
	}
}

static inline void sample_message(struct sample *s, uint8_t type, union message *ret)
{
	static const uint8_t data[64] = "content of a file";

	memset(ret, 0, sizeof(*ret));
	switch (type) {
	case MESSAGE_OPEN:
		ret->open = (struct message_open){
			.place = sample_text(s, 100),
			.create = sample_flag(s),
			.algorithm = (uint8_t)sample_below(s, 4),
			.sends = sample_flag(s),
			.takes = sample_flag(s),
			.live = sample_flag(s),
			.confirmed = sample_flag(s),
			.version = sample_text(s, 20),
		};
		break;
	case MESSAGE_GREET:
		ret->greet = (struct message_greet){
			.replica = sample_u64(s) | 1,
			.folder = {.id = sample_u64(s) | 1,
				.standing = (enum store_standing)sample_below(s, 3),
				.algorithm = (enum hash_algorithm)(1 + sample_below(s, 3)),
				.n_former = sample_below(s, STORE_FORMER_MAX + 1),
				.left = (uint32_t)sample_u64(s)},
			.sends = sample_flag(s),
			.takes = sample_flag(s),
			.policy = (uint8_t)sample_below(s, 3),
			.n_prefer = sample_below(s, 5),
			.nonce = sample_u64(s),
			.name = sample_text(s, 50),
			.version = sample_text(s, 20),
		};
		ret->greet.prefer = sample_array(ret->greet.n_prefer, sizeof(uint64_t));
		sample_bytes(s, ret->greet.prefer, ret->greet.n_prefer * sizeof(uint64_t));
		sample_bytes(s, ret->greet.folder.former, ret->greet.folder.n_former * sizeof(uint64_t));
		break;
	case MESSAGE_LINEAGE:
		ret->lineage.n = sample_below(s, 5);
		ret->lineage.v = sample_array(ret->lineage.n, sizeof(*ret->lineage.v));
		for (size_t i = 0; i < ret->lineage.n; i++) {
			struct version_dot parent = sample_dot(s);
			bool has = sample_flag(s);

			ret->lineage.v[i] = (struct version_incarnation){
				.inc = sample_u64(s) | 1,
				.parent = has ? parent.inc : 0,
				.from = has ? parent.counter : 0,
				.replica = sample_u64(s) | 1,
			};
		}
		ret->lineage.last = sample_flag(s);
		break;
	case MESSAGE_HELLO:
		sample_hello(s, &ret->hello, sample_flag(s));
		break;
	case MESSAGE_PUSH:
		sample_push(s, &ret->push);
		break;
	case MESSAGE_ASK:
		ret->ask.n = sample_below(s, 4);
		ret->ask.v = sample_array(ret->ask.n, sizeof(*ret->ask.v));
		for (size_t i = 0; i < ret->ask.n; i++) {
			ret->ask.v[i].id = (uint32_t)sample_u64(s);
			sample_range(s, &ret->ask.v[i].range);
		}
		break;
	case MESSAGE_ENTRIES:
		ret->entries.id = (uint32_t)sample_u64(s);
		ret->entries.n = sample_below(s, 6);
		ret->entries.v = sample_array(ret->entries.n, sizeof(*ret->entries.v));
		sample_bytes(s, ret->entries.v, ret->entries.n * sizeof(*ret->entries.v));
		ret->entries.cut = sample_flag(s);
		if (ret->entries.cut)
			sample_key(s, &ret->entries.from);
		break;
	case MESSAGE_PAIR:
	case MESSAGE_ROWS:
		sample_pair(s, &ret->pair);
		break;
	case MESSAGE_MATCH:
	case MESSAGE_MATCHED:
		sample_groups(s, &ret->match, type == MESSAGE_MATCH);
		break;
	case MESSAGE_WALKED:
		ret->walked.round = (uint32_t)sample_u64(s);
		break;
	case MESSAGE_NODES_NAMED:
		ret->nodes_ask.n_names = 1 + sample_below(s, 300);
		ret->nodes_ask.names = sample_array(ret->nodes_ask.n_names, sizeof(*ret->nodes_ask.names));
		sample_bytes(s, ret->nodes_ask.names, ret->nodes_ask.n_names * sizeof(*ret->nodes_ask.names));
		/* fall through */
	case MESSAGE_NODES_ASK:
		ret->nodes_ask.id = (uint32_t)sample_u64(s);
		ret->nodes_ask.n = sample_below(s, 5);
		ret->nodes_ask.v = sample_array(ret->nodes_ask.n, HASH_BYTES);
		sample_bytes(s, ret->nodes_ask.v, ret->nodes_ask.n * HASH_BYTES);
		break;
	case MESSAGE_NODES:
	case MESSAGE_NODES_TOLD:
		ret->nodes.id = (uint32_t)sample_u64(s);
		ret->nodes.n = sample_below(s, 4);
		ret->nodes.v = sample_array(ret->nodes.n, sizeof(*ret->nodes.v));
		for (size_t i = 0; i < ret->nodes.n; i++) {
			struct message_node *node = &ret->nodes.v[i];

			node->present = type == MESSAGE_NODES ? sample_flag(s) : (uint8_t)sample_below(s, MESSAGE_NODE_TOLD + 1);
			if (!node->present)
				continue;
			node->length = node->present == MESSAGE_NODE_TOLD ? (uint32_t)sample_below(s, CHUNK_TREE_NODE_BYTES_MAX + 1) : 0;
			node->level = (uint8_t)sample_below(s, 9);
			node->n = sample_below(s, 90);
			node->payload = sample_array(node->n, 1);
			sample_bytes(s, node->payload, node->n);
		}
		break;
	case MESSAGE_FETCH:
		sample_fetch(s, &ret->fetch);
		break;
	case MESSAGE_DATA:
		ret->data = (struct message_data){
			.id = (uint32_t)sample_u64(s),
			.range = (uint32_t)sample_u64(s),
			.at = (uint32_t)sample_u64(s),
			.bytes = data,
			.n = sample_below(s, sizeof(data) + 1),
		};
		break;
	case MESSAGE_BULK:
		ret->bulk.n = sample_below(s, MESSAGE_BULK_MAX + 1);
		ret->bulk.v = sample_array(ret->bulk.n, sizeof(*ret->bulk.v));
		for (size_t i = 0; i < ret->bulk.n; i++)
			ret->bulk.v[i] = (struct message_data){
				.id = (uint32_t)sample_u64(s),
				.range = (uint32_t)sample_u64(s),
				.at = (uint32_t)sample_u64(s),
				.bytes = data,
				.n = sample_below(s, 50),
			};
		break;
	case MESSAGE_PIECES:
		ret->pieces = (struct message_pieces){
			.id = (uint32_t)sample_u64(s),
			.range = (uint32_t)sample_u64(s),
			.bytes = data,
			.n = sample_below(s, sizeof(data) + 1),
		};
		break;
	case MESSAGE_GONE:
		ret->gone.id = (uint32_t)sample_u64(s);
		ret->gone.reason = (uint8_t)(1 + sample_below(s, 3));
		break;
	case MESSAGE_DONE:
		ret->done.round = (uint32_t)sample_u64(s);
		sample_bytes(s, &ret->done.root, HASH_BYTES);
		ret->done.skipped = sample_number(s);
		ret->done.held = sample_number(s);
		ret->done.full = sample_number(s);
		ret->done.excepted = sample_flag(s);
		sample_vector(s, &ret->done.k, sample_below(s, 4));
		break;
	case MESSAGE_FAIL:
		ret->fail.code = (uint16_t)sample_u64(s);
		ret->fail.text = sample_text(s, 100);
		break;
	default:
		break;
	}
}

#endif
