/*
 * transfer/message.c — encode and decode, side by side, fields in the same order; one table.
 *
 * A decoder reads all fields and fails its cursor on a value that may not be; arrays grow only as their elements
 * actually arrive, so that an announced count never allocates by itself more than one element's worth per byte received.
 */
#include "transfer/message.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"

static void put_text(struct buf *b, const char *text)
{
	put_string(b, text ? text : "", text ? strlen(text) : 0);
}

static uint8_t get_flag(struct cursor *c)
{
	uint8_t v = get_u8(c);

	if (v > 1)
		cursor_fail(c);
	return v;
}

/* A zeroed array for n elements, each of which takes at least one byte of what is left. */
static void *get_array(struct cursor *c, size_t n, size_t element_bytes)
{
	void *v;

	if (c->failed || n > cursor_left(c)) {
		cursor_fail(c);
		return NULL;
	}
	v = calloc(n ? n : 1, element_bytes);
	if (!v)
		cursor_fail(c);
	return v;
}

static char *get_path(struct cursor *c)
{
	char *path = get_text(c, FILE_PATH_BYTES_MAX);

	if (path && !path_valid(path))
		cursor_fail(c);
	return path;
}

static void put_hash(struct buf *b, const struct hash *h)
{
	put_bytes(b, h->bytes, sizeof(h->bytes));
}

static void get_hash(struct cursor *c, struct hash *ret)
{
	get_bytes(c, ret->bytes, sizeof(ret->bytes));
}

static void put_key(struct buf *b, const struct path_key *key)
{
	put_string(b, key->bytes, key->len);
}

static void get_key(struct cursor *c, struct path_key *ret)
{
	size_t n;
	const uint8_t *p = get_string(c, PATH_KEY_BYTES_MAX, &n);

	ret->len = (uint16_t)n;
	if (n)
		memcpy(ret->bytes, p, n);
}

/* --- OPEN --- */

static void put_open(struct buf *b, const union message *m)
{
	const struct message_open *o = &m->open;

	put_text(b, o->place);
	put_u8(b, 0); /* reserved */
	put_u8(b, o->create);
	put_u8(b, o->algorithm);
	put_u8(b, o->sends);
	put_u8(b, o->takes);
	put_u8(b, o->live);
	put_u8(b, o->confirmed);
	put_text(b, o->version);
}

static void get_open(struct cursor *c, union message *m)
{
	struct message_open *o = &m->open;

	o->place = get_text(c, FILE_PATH_BYTES_MAX);
	if (get_u8(c))
		cursor_fail(c);
	o->create = get_flag(c);
	o->algorithm = get_u8(c);
	o->sends = get_flag(c);
	o->takes = get_flag(c);
	o->live = get_flag(c);
	o->confirmed = get_flag(c);
	o->version = get_text(c, MESSAGE_NAME_BYTES_MAX);
	if (o->algorithm && !hash_algorithm_known(o->algorithm))
		cursor_fail(c);
}

static void deinit_open(union message *m)
{
	free(m->open.place);
	free(m->open.version);
}

/* --- GREET --- */

static void put_greet(struct buf *b, const union message *m)
{
	const struct message_greet *g = &m->greet;

	put_u64(b, g->replica);
	put_u64(b, g->folder.id);
	put_u8(b, (uint8_t)g->folder.standing);
	put_u8(b, (uint8_t)g->folder.algorithm);
	put_varint(b, g->folder.n_former);
	for (size_t i = 0; i < g->folder.n_former; i++)
		put_u64(b, g->folder.former[i]);
	put_u32(b, g->folder.left);
	put_u8(b, g->sends);
	put_u8(b, g->takes);
	put_u8(b, g->policy);
	put_varint(b, g->n_prefer);
	for (size_t i = 0; i < g->n_prefer; i++)
		put_u64(b, g->prefer[i]);
	put_u64(b, g->nonce);
	put_text(b, g->name);
	put_text(b, g->version);
}

static void get_greet(struct cursor *c, union message *m)
{
	struct message_greet *g = &m->greet;
	uint8_t standing, algorithm;

	g->replica = get_u64(c);
	g->folder.id = get_u64(c);
	standing = get_u8(c);
	algorithm = get_u8(c);
	g->folder.n_former = get_varint_max(c, STORE_FORMER_MAX);
	for (size_t i = 0; i < g->folder.n_former && !c->failed; i++)
		g->folder.former[i] = get_u64(c);
	g->folder.left = get_u32(c);
	g->sends = get_flag(c);
	g->takes = get_flag(c);
	g->policy = get_u8(c);
	g->n_prefer = get_varint_max(c, MESSAGE_PREFER_MAX);
	g->prefer = get_array(c, g->n_prefer, sizeof(*g->prefer));
	for (size_t i = 0; i < g->n_prefer && !c->failed; i++)
		g->prefer[i] = get_u64(c);
	g->nonce = get_u64(c);
	g->name = get_text(c, MESSAGE_NAME_BYTES_MAX);
	g->version = get_text(c, MESSAGE_NAME_BYTES_MAX);
	if (!g->replica || !g->folder.id || standing > STORE_JOINED || !hash_algorithm_known(algorithm))
		cursor_fail(c);
	g->folder.standing = (enum store_standing)standing;
	g->folder.algorithm = (enum hash_algorithm)algorithm;
}

static void deinit_greet(union message *m)
{
	free(m->greet.prefer);
	free(m->greet.name);
	free(m->greet.version);
}

/* --- LINEAGE --- */

static void put_lineage(struct buf *b, const union message *m)
{
	put_varint(b, m->lineage.n);
	for (size_t i = 0; i < m->lineage.n; i++)
		version_incarnation_put(b, &m->lineage.v[i]);
	put_u8(b, m->lineage.last);
}

static void get_lineage(struct cursor *c, union message *m)
{
	m->lineage.n = get_varint_max(c, MESSAGE_LINEAGE_MAX);
	m->lineage.v = get_array(c, m->lineage.n, sizeof(*m->lineage.v));
	for (size_t i = 0; i < m->lineage.n && !c->failed; i++)
		version_incarnation_get(c, &m->lineage.v[i]);
	m->lineage.last = get_flag(c);
}

static void deinit_lineage(union message *m)
{
	free(m->lineage.v);
}

/* --- HELLO --- */

/* Older versions know of a 0 or a 1 where these are. */
enum hello_flags {
	HELLO_KNOWLEDGE = 1 << 0,
	HELLO_UNREAD = 1 << 1,
	HELLO_FLAGS = HELLO_KNOWLEDGE | HELLO_UNREAD,
};

static void put_hello_of(struct buf *b, const struct message_hello *h)
{
	put_u32(b, h->round);
	put_hash(b, &h->root);
	put_varint(b, h->live);
	put_u64(b, h->lineage_digest);
	put_u64(b, h->ignore_digest);
	put_varint(b, h->held);
	put_u64(b, h->own.inc);
	put_varint(b, h->own.counter);
	put_u8(b, (h->has_knowledge ? HELLO_KNOWLEDGE : 0) | (h->unread ? HELLO_UNREAD : 0));
	if (h->has_knowledge)
		knowledge_put(b, &h->knowledge);
	if (h->unread)
		put_varint(b, h->unread);
}

static void get_hello_of(struct cursor *c, struct message_hello *h)
{
	uint8_t flags;

	h->round = get_u32(c);
	get_hash(c, &h->root);
	h->live = get_varint(c);
	h->lineage_digest = get_u64(c);
	h->ignore_digest = get_u64(c);
	h->held = get_varint(c);
	h->own.inc = get_u64(c);
	h->own.counter = get_varint_max(c, VERSION_COUNTER_MAX);
	flags = get_u8(c);
	if (flags & ~HELLO_FLAGS)
		cursor_fail(c);
	h->has_knowledge = flags & HELLO_KNOWLEDGE;
	if (h->has_knowledge)
		knowledge_get(c, &h->knowledge);
	if (flags & HELLO_UNREAD) {
		h->unread = get_varint(c);
		if (!h->unread)
			cursor_fail(c);
	}
}

static void put_hello(struct buf *b, const union message *m)
{
	put_hello_of(b, &m->hello);
}

static void get_hello(struct cursor *c, union message *m)
{
	get_hello_of(c, &m->hello);
}

static void deinit_hello(union message *m)
{
	knowledge_deinit(&m->hello.knowledge);
}

/* --- PUSH --- */

static void put_push(struct buf *b, const union message *m)
{
	const struct message_push *p = &m->push;

	put_hello_of(b, &p->hello);
	put_varint(b, p->n);
	for (size_t i = 0; i < p->n; i++) {
		put_text(b, p->rows[i].path);
		record_put(b, &p->rows[i].record);
		put_string(b, p->rows[i].bytes, p->rows[i].n);
	}
}

static void get_pushed(struct cursor *c, struct message_pushed *row)
{
	const struct record *r = &row->record;
	const uint8_t *bytes;

	row->path = get_path(c);
	record_get(c, &row->record);
	bytes = get_string(c, MESSAGE_SMALL_BYTES_MAX, &row->n);
	if (c->failed || !row->n)
		return;
	if (!r->live || r->kind != RECORD_FILE || row->n != r->content.size) {
		cursor_fail(c);
		return;
	}
	row->bytes = malloc(row->n);
	if (!row->bytes)
		cursor_fail(c);
	else
		memcpy(row->bytes, bytes, row->n);
}

static void get_push(struct cursor *c, union message *m)
{
	struct message_push *p = &m->push;

	get_hello_of(c, &p->hello);
	p->n = get_varint_max(c, MESSAGE_PUSHED_MAX);
	p->rows = get_array(c, p->n, sizeof(*p->rows));
	for (size_t i = 0; i < p->n && !c->failed; i++) {
		get_pushed(c, &p->rows[i]);
		if (i && !c->failed && strcmp(p->rows[i - 1].path, p->rows[i].path) >= 0)
			cursor_fail(c);
	}
	if (!p->hello.round || !p->hello.has_knowledge || !p->n)
		cursor_fail(c);
}

static void deinit_push(union message *m)
{
	knowledge_deinit(&m->push.hello.knowledge);
	for (size_t i = 0; m->push.rows && i < m->push.n; i++) {
		free(m->push.rows[i].path);
		record_deinit(&m->push.rows[i].record);
		free(m->push.rows[i].bytes);
	}
	free(m->push.rows);
}

/* --- ASK, ENTRIES --- */

static void put_range(struct buf *b, const struct diff_range *r)
{
	put_u8(b, (uint8_t)r->which);
	put_u8(b, r->level);
	put_key(b, &r->from);
	put_u8(b, r->open);
	if (!r->open)
		put_key(b, &r->to);
}

static void get_range(struct cursor *c, struct diff_range *r)
{
	uint8_t which = get_u8(c);

	r->which = (enum tree_which)which;
	r->level = get_u8(c);
	get_key(c, &r->from);
	r->open = get_flag(c);
	if (!r->open)
		get_key(c, &r->to);
	if (which > TREE_TOMBSTONES || r->level > TREE_LEVELS)
		cursor_fail(c);
}

static void put_ask(struct buf *b, const union message *m)
{
	put_varint(b, m->ask.n);
	for (size_t i = 0; i < m->ask.n; i++) {
		put_u32(b, m->ask.v[i].id);
		put_range(b, &m->ask.v[i].range);
	}
}

static void get_ask(struct cursor *c, union message *m)
{
	m->ask.n = get_varint_max(c, MESSAGE_ASK_MAX);
	m->ask.v = get_array(c, m->ask.n, sizeof(*m->ask.v));
	for (size_t i = 0; i < m->ask.n && !c->failed; i++) {
		m->ask.v[i].id = get_u32(c);
		get_range(c, &m->ask.v[i].range);
	}
}

static void deinit_ask(union message *m)
{
	free(m->ask.v);
}

static void put_entries(struct buf *b, const union message *m)
{
	const struct message_entries *e = &m->entries;

	put_u32(b, e->id);
	put_varint(b, e->n);
	for (size_t i = 0; i < e->n; i++) {
		put_u64(b, e->v[i].separator);
		put_u64(b, e->v[i].hash);
	}
	put_u8(b, e->cut);
	if (e->cut)
		put_key(b, &e->from);
}

static void get_entries(struct cursor *c, union message *m)
{
	struct message_entries *e = &m->entries;

	e->id = get_u32(c);
	e->n = get_varint_max(c, DIFF_ENTRIES_MAX);
	e->v = get_array(c, e->n, sizeof(*e->v));
	for (size_t i = 0; i < e->n && !c->failed; i++) {
		e->v[i].separator = get_u64(c);
		e->v[i].hash = get_u64(c);
	}
	e->cut = get_flag(c);
	if (e->cut)
		get_key(c, &e->from);
}

static void deinit_entries(union message *m)
{
	free(m->entries.v);
}

/* --- PAIR, ROWS --- */

static void put_item(struct buf *b, const struct message_item *item)
{
	put_text(b, item->path);
	put_u8(b, item->tell);
	if (item->tell == MESSAGE_RECORD)
		record_put(b, &item->record);
	put_u8(b, item->has_k);
	if (item->has_k)
		version_vector_put(b, &item->k);
}

static void get_item(struct cursor *c, struct message_item *item)
{
	item->path = get_path(c);
	item->tell = get_u8(c);
	if (item->tell > MESSAGE_UNTOLD)
		cursor_fail(c);
	if (item->tell == MESSAGE_RECORD)
		record_get(c, &item->record);
	item->has_k = get_flag(c);
	if (item->has_k)
		version_vector_get_from(c, &item->k);
}

static void put_pair(struct buf *b, const union message *m)
{
	const struct message_pair *p = &m->pair;

	put_u32(b, p->id);
	put_u8(b, p->last);
	put_u8(b, p->has_k);
	if (p->has_k)
		version_vector_put(b, &p->k);
	put_varint(b, p->n_items);
	for (size_t i = 0; i < p->n_items; i++)
		put_item(b, &p->items[i]);
	put_varint(b, p->n_wants);
	if (!p->n_wants)
		return;
	put_range(b, &p->range);
	for (size_t i = 0; i < p->n_wants; i++)
		put_u64(b, p->wants[i]);
}

static void get_pair(struct cursor *c, union message *m)
{
	struct message_pair *p = &m->pair;

	p->id = get_u32(c);
	p->last = get_flag(c);
	p->has_k = get_flag(c);
	if (p->has_k)
		version_vector_get_from(c, &p->k);
	p->n_items = get_varint_max(c, MESSAGE_ITEMS_MAX);
	p->items = get_array(c, p->n_items, sizeof(*p->items));
	for (size_t i = 0; i < p->n_items && !c->failed; i++)
		get_item(c, &p->items[i]);
	p->n_wants = get_varint_max(c, MESSAGE_WANTS_MAX);
	if (!p->n_wants)
		return;
	get_range(c, &p->range);
	p->wants = get_array(c, p->n_wants, sizeof(*p->wants));
	for (size_t i = 0; i < p->n_wants && !c->failed; i++)
		p->wants[i] = get_u64(c);
}

static void deinit_pair(union message *m)
{
	struct message_pair *p = &m->pair;

	version_vector_deinit(&p->k);
	for (size_t i = 0; p->items && i < p->n_items; i++) {
		free(p->items[i].path);
		record_deinit(&p->items[i].record);
		version_vector_deinit(&p->items[i].k);
	}
	free(p->items);
	free(p->wants);
}

/* --- MATCH, MATCHED --- */

static void put_versions(struct buf *b, const struct message_match *m)
{
	version_vector_put(b, &m->k);
	put_varint(b, m->table.n);
	for (size_t i = 0; i < m->table.n; i++)
		put_u64(b, m->table.inc[i]);
	for (size_t i = 0; i < m->n_groups; i++)
		put_string(b, m->groups[i].versions, m->groups[i].n);
}

static void get_versions(struct cursor *c, struct message_match *m)
{
	version_vector_get_from(c, &m->k);
	m->table.n = get_varint_max(c, MATCH_INCARNATIONS_MAX);
	m->table.inc = get_array(c, m->table.n, sizeof(*m->table.inc));
	for (size_t i = 0; i < m->table.n && !c->failed; i++)
		m->table.inc[i] = get_u64(c);
	for (size_t i = 0; i < m->n_groups && !c->failed; i++) {
		struct message_group *g = &m->groups[i];
		const uint8_t *p = get_string(c, MESSAGE_VERSIONS_MAX, &g->n);

		if (!g->n)
			continue;
		g->versions = malloc(g->n);
		if (!g->versions)
			cursor_fail(c);
		else
			memcpy(g->versions, p, g->n);
	}
}

static void put_match(struct buf *b, const union message *m)
{
	put_u32(b, m->match.id);
	put_range(b, &m->match.range);
	put_varint(b, m->match.n_groups);
	for (size_t i = 0; i < m->match.n_groups; i++) {
		put_u64(b, m->match.groups[i].separator);
		put_bytes(b, m->match.groups[i].digest.bytes, MATCH_DIGEST_BYTES);
	}
	put_versions(b, &m->match);
}

static void get_match(struct cursor *c, union message *m)
{
	m->match.id = get_u32(c);
	get_range(c, &m->match.range);
	m->match.n_groups = get_varint_max(c, MESSAGE_GROUPS_MAX);
	m->match.groups = get_array(c, m->match.n_groups, sizeof(*m->match.groups));
	for (size_t i = 0; i < m->match.n_groups && !c->failed; i++) {
		m->match.groups[i].separator = get_u64(c);
		get_bytes(c, m->match.groups[i].digest.bytes, MATCH_DIGEST_BYTES);
	}
	get_versions(c, &m->match);
	if (!m->match.n_groups || m->match.range.which != TREE_LIVE || m->match.range.level)
		cursor_fail(c);
}

static void put_matched(struct buf *b, const union message *m)
{
	put_u32(b, m->match.id);
	put_varint(b, m->match.n_groups);
	put_versions(b, &m->match);
}

static void get_matched(struct cursor *c, union message *m)
{
	m->match.id = get_u32(c);
	m->match.n_groups = get_varint_max(c, MESSAGE_GROUPS_MAX);
	m->match.groups = get_array(c, m->match.n_groups, sizeof(*m->match.groups));
	get_versions(c, &m->match);
}

static void deinit_match(union message *m)
{
	version_vector_deinit(&m->match.k);
	free(m->match.table.inc);
	for (size_t i = 0; m->match.groups && i < m->match.n_groups; i++)
		free(m->match.groups[i].versions);
	free(m->match.groups);
}

/* --- WALKED --- */

static void put_walked(struct buf *b, const union message *m)
{
	put_u32(b, m->walked.round);
}

static void get_walked(struct cursor *c, union message *m)
{
	m->walked.round = get_u32(c);
}

/* --- NODES_ASK, NODES_NAMED, NODES, NODES_TOLD --- */

static void put_nodes_ask(struct buf *b, const union message *m)
{
	put_u32(b, m->nodes_ask.id);
	put_varint(b, m->nodes_ask.n);
	for (size_t i = 0; i < m->nodes_ask.n; i++)
		put_hash(b, &m->nodes_ask.v[i]);
}

static void get_nodes_ask(struct cursor *c, union message *m)
{
	m->nodes_ask.id = get_u32(c);
	m->nodes_ask.n = get_varint_max(c, MESSAGE_NODES_MAX);
	m->nodes_ask.v = get_array(c, m->nodes_ask.n, sizeof(*m->nodes_ask.v));
	for (size_t i = 0; i < m->nodes_ask.n && !c->failed; i++)
		get_hash(c, &m->nodes_ask.v[i]);
}

static void put_nodes_named(struct buf *b, const union message *m)
{
	put_nodes_ask(b, m);
	put_varint(b, m->nodes_ask.n_names);
	for (size_t i = 0; i < m->nodes_ask.n_names; i++)
		put_u32(b, m->nodes_ask.names[i]);
}

static void get_nodes_named(struct cursor *c, union message *m)
{
	get_nodes_ask(c, m);
	m->nodes_ask.n_names = get_varint_max(c, MESSAGE_NODE_NAMES_MAX);
	if (!m->nodes_ask.n_names)
		cursor_fail(c);
	m->nodes_ask.names = get_array(c, m->nodes_ask.n_names, sizeof(*m->nodes_ask.names));
	for (size_t i = 0; i < m->nodes_ask.n_names && !c->failed; i++)
		m->nodes_ask.names[i] = get_u32(c);
}

static void deinit_nodes_ask(union message *m)
{
	free(m->nodes_ask.v);
	free(m->nodes_ask.names);
}

static void put_nodes(struct buf *b, const union message *m)
{
	put_u32(b, m->nodes.id);
	put_varint(b, m->nodes.n);
	for (size_t i = 0; i < m->nodes.n; i++) {
		const struct message_node *node = &m->nodes.v[i];

		put_u8(b, node->present);
		if (!node->present)
			continue;
		put_u8(b, node->level);
		if (node->present == MESSAGE_NODE_TOLD)
			put_varint(b, node->length);
		put_string(b, node->payload, node->n);
	}
}

static void get_node(struct cursor *c, uint8_t most, struct message_node *ret)
{
	const uint8_t *p;

	ret->present = get_u8(c);
	if (ret->present > most)
		cursor_fail(c);
	if (!ret->present || c->failed)
		return;
	ret->level = get_u8(c);
	if (ret->present == MESSAGE_NODE_TOLD)
		ret->length = (uint32_t)get_varint_max(c, CHUNK_TREE_NODE_BYTES_MAX);
	p = get_string(c, CHUNK_TREE_NODE_BYTES_MAX, &ret->n);
	ret->payload = malloc(ret->n ? ret->n : 1);
	if (!ret->payload)
		cursor_fail(c);
	else if (ret->n)
		memcpy(ret->payload, p, ret->n);
}

static void get_nodes_up_to(struct cursor *c, uint8_t most, struct message_nodes *ret)
{
	ret->id = get_u32(c);
	ret->n = get_varint_max(c, MESSAGE_NODES_MAX);
	ret->v = get_array(c, ret->n, sizeof(*ret->v));
	for (size_t i = 0; i < ret->n && !c->failed; i++)
		get_node(c, most, &ret->v[i]);
}

static void get_nodes(struct cursor *c, union message *m)
{
	get_nodes_up_to(c, MESSAGE_NODE_WHOLE, &m->nodes);
}

static void get_nodes_told(struct cursor *c, union message *m)
{
	get_nodes_up_to(c, MESSAGE_NODE_TOLD, &m->nodes);
}

static void deinit_nodes(union message *m)
{
	for (size_t i = 0; m->nodes.v && i < m->nodes.n; i++)
		free(m->nodes.v[i].payload);
	free(m->nodes.v);
}

/* --- FETCH, DATA, BULK, PIECES, GONE --- */

static void put_request(struct buf *b, const struct message_request *r)
{
	put_u32(b, r->id);
	put_text(b, r->path);
	put_hash(b, &r->content.root);
	put_varint(b, r->content.size);
	put_u8(b, r->content.chunk_bits);
	put_u8(b, r->content.height);
	put_varint(b, r->n);
	for (size_t i = 0; i < r->n; i++) {
		put_varint(b, r->v[i].offset);
		put_varint(b, r->v[i].length);
	}
	put_varint(b, r->n_names);
	if (r->n_names)
		put_u8(b, r->piece_bits);
	for (size_t i = 0; i < r->n_names; i++)
		put_u32(b, r->names[i]);
}

static void get_request(struct cursor *c, struct message_request *r)
{
	uint64_t total = 0;

	r->id = get_u32(c);
	r->path = get_path(c);
	get_hash(c, &r->content.root);
	r->content.size = get_varint(c);
	r->content.chunk_bits = get_u8(c);
	r->content.height = get_u8(c);
	r->n = get_varint_max(c, MESSAGE_RANGES_MAX);
	r->v = get_array(c, r->n, sizeof(*r->v));
	for (size_t i = 0; i < r->n && !c->failed; i++) {
		r->v[i].offset = get_varint_max(c, r->content.size);
		r->v[i].length = (uint32_t)get_varint_max(c, CHUNK_BYTES_MAX);
		total += r->v[i].length;
		if (r->v[i].length > r->content.size - r->v[i].offset)
			cursor_fail(c);
	}
	if (total > MESSAGE_REQUEST_BYTES_MAX)
		cursor_fail(c);
	r->n_names = get_varint_max(c, PIECES_NAMES_MAX);
	if (!r->n_names)
		return;
	r->piece_bits = get_u8(c);
	if (r->piece_bits < PIECE_BITS_MIN || r->piece_bits > PIECE_BITS_MAX)
		cursor_fail(c);
	r->names = get_array(c, r->n_names, sizeof(*r->names));
	for (size_t i = 0; i < r->n_names && !c->failed; i++)
		r->names[i] = get_u32(c);
}

static void put_fetch(struct buf *b, const union message *m)
{
	put_varint(b, m->fetch.n);
	for (size_t i = 0; i < m->fetch.n; i++)
		put_request(b, &m->fetch.v[i]);
}

static void get_fetch(struct cursor *c, union message *m)
{
	size_t names = 0;

	m->fetch.n = get_varint_max(c, MESSAGE_FETCH_MAX);
	m->fetch.v = get_array(c, m->fetch.n, sizeof(*m->fetch.v));
	for (size_t i = 0; i < m->fetch.n && !c->failed; i++) {
		get_request(c, &m->fetch.v[i]);
		names += m->fetch.v[i].n_names;
		if (names > MESSAGE_NAMES_MAX)
			cursor_fail(c);
	}
}

void message_request_deinit(struct message_request *r)
{
	free(r->path);
	free(r->v);
	free(r->names);
}

static void deinit_fetch(union message *m)
{
	for (size_t i = 0; m->fetch.v && i < m->fetch.n; i++)
		message_request_deinit(&m->fetch.v[i]);
	free(m->fetch.v);
}

static void put_part(struct buf *b, const struct message_data *d)
{
	put_u32(b, d->id);
	put_u32(b, d->range);
	put_u32(b, d->at);
	put_string(b, d->bytes, d->n);
}

static void get_part(struct cursor *c, struct message_data *d)
{
	d->id = get_u32(c);
	d->range = get_u32(c);
	d->at = get_u32(c);
	d->bytes = get_string(c, MESSAGE_DATA_BYTES_MAX, &d->n);
}

static void put_data(struct buf *b, const union message *m)
{
	put_part(b, &m->data);
}

static void get_data(struct cursor *c, union message *m)
{
	get_part(c, &m->data);
}

static void put_bulk(struct buf *b, const union message *m)
{
	put_varint(b, m->bulk.n);
	for (size_t i = 0; i < m->bulk.n; i++)
		put_part(b, &m->bulk.v[i]);
}

static void get_bulk(struct cursor *c, union message *m)
{
	m->bulk.n = get_varint_max(c, MESSAGE_BULK_MAX);
	m->bulk.v = get_array(c, m->bulk.n, sizeof(*m->bulk.v));
	for (size_t i = 0; i < m->bulk.n && !c->failed; i++)
		get_part(c, &m->bulk.v[i]);
}

static void deinit_bulk(union message *m)
{
	free(m->bulk.v);
}

static void put_pieces(struct buf *b, const union message *m)
{
	put_u32(b, m->pieces.id);
	put_u32(b, m->pieces.range);
	put_string(b, m->pieces.bytes, m->pieces.n);
}

static void get_pieces(struct cursor *c, union message *m)
{
	m->pieces.id = get_u32(c);
	m->pieces.range = get_u32(c);
	m->pieces.bytes = get_string(c, MESSAGE_PIECES_BYTES_MAX, &m->pieces.n);
}

static void put_gone(struct buf *b, const union message *m)
{
	put_u32(b, m->gone.id);
	put_u8(b, m->gone.reason);
}

static void get_gone(struct cursor *c, union message *m)
{
	m->gone.id = get_u32(c);
	m->gone.reason = get_u8(c);
}

/* --- DONE, KEEPALIVE, FAIL, BYE --- */

static void put_done(struct buf *b, const union message *m)
{
	const struct message_done *d = &m->done;

	put_u32(b, d->round);
	put_hash(b, &d->root);
	put_varint(b, d->skipped);
	put_varint(b, d->held);
	put_varint(b, d->full);
	put_u8(b, d->excepted);
	version_vector_put(b, &d->k);
}

static void get_done(struct cursor *c, union message *m)
{
	struct message_done *d = &m->done;

	d->round = get_u32(c);
	get_hash(c, &d->root);
	d->skipped = get_varint(c);
	d->held = get_varint(c);
	d->full = get_varint(c);
	d->excepted = get_flag(c);
	version_vector_get_from(c, &d->k);
}

static void deinit_done(union message *m)
{
	version_vector_deinit(&m->done.k);
}

static void put_fail(struct buf *b, const union message *m)
{
	put_u16(b, m->fail.code);
	put_text(b, m->fail.text);
}

static void get_fail(struct cursor *c, union message *m)
{
	m->fail.code = get_u16(c);
	m->fail.text = get_text(c, MESSAGE_TEXT_BYTES_MAX);
}

static void deinit_fail(union message *m)
{
	free(m->fail.text);
}

static void put_nothing(struct buf *b, const union message *m)
{
	(void)b;
	(void)m;
}

static void get_nothing(struct cursor *c, union message *m)
{
	(void)c;
	(void)m;
}

static void deinit_nothing(union message *m)
{
	(void)m;
}

static const struct message_info messages[MESSAGE_TYPES] = {
	[MESSAGE_OPEN] = {"OPEN", 8192, true, false, put_open, get_open, deinit_open},
	[MESSAGE_GREET] = {"GREET", 8192, false, false, put_greet, get_greet, deinit_greet},
	[MESSAGE_LINEAGE] = {"LINEAGE", 256 * 1024, false, true, put_lineage, get_lineage, deinit_lineage},
	[MESSAGE_HELLO] = {"HELLO", MESSAGE_BYTES_MAX, false, true, put_hello, get_hello, deinit_hello},
	[MESSAGE_ASK] = {"ASK", 128 * 1024, false, true, put_ask, get_ask, deinit_ask},
	[MESSAGE_ENTRIES] = {"ENTRIES", 128 * 1024, false, true, put_entries, get_entries, deinit_entries},
	[MESSAGE_PAIR] = {"PAIR", MESSAGE_BYTES_MAX, false, true, put_pair, get_pair, deinit_pair},
	[MESSAGE_ROWS] = {"ROWS", MESSAGE_BYTES_MAX, false, true, put_pair, get_pair, deinit_pair},
	[MESSAGE_WALKED] = {"WALKED", 64, false, false, put_walked, get_walked, deinit_nothing},
	[MESSAGE_NODES_ASK] = {"NODES_ASK", 8192, false, false, put_nodes_ask, get_nodes_ask, deinit_nodes_ask},
	[MESSAGE_NODES] = {"NODES", 1024 * 1024, false, true, put_nodes, get_nodes, deinit_nodes},
	[MESSAGE_NODES_NAMED] = {"NODES_NAMED", 8192 + 4 * MESSAGE_NODE_NAMES_MAX, false, false, put_nodes_named, get_nodes_named, deinit_nodes_ask},
	[MESSAGE_NODES_TOLD] = {"NODES_TOLD", 1024 * 1024, false, true, put_nodes, get_nodes_told, deinit_nodes},
	[MESSAGE_FETCH] = {"FETCH", MESSAGE_BYTES_MAX, false, true, put_fetch, get_fetch, deinit_fetch},
	[MESSAGE_DATA] = {"DATA", MESSAGE_DATA_BYTES_MAX + 64, false, true, put_data, get_data, deinit_nothing},
	[MESSAGE_GONE] = {"GONE", 64, false, false, put_gone, get_gone, deinit_nothing},
	[MESSAGE_DONE] = {"DONE", 128 * 1024, false, true, put_done, get_done, deinit_done},
	[MESSAGE_KEEPALIVE] = {"KEEPALIVE", 64, false, false, put_nothing, get_nothing, deinit_nothing},
	[MESSAGE_FAIL] = {"FAIL", 4096, false, false, put_fail, get_fail, deinit_fail},
	[MESSAGE_BYE] = {"BYE", 64, false, false, put_nothing, get_nothing, deinit_nothing},
	[MESSAGE_PIECES] = {"PIECES", MESSAGE_PIECES_BYTES_MAX + 64, false, true, put_pieces, get_pieces, deinit_nothing},
	[MESSAGE_MATCH] = {"MATCH", MESSAGE_BYTES_MAX, false, true, put_match, get_match, deinit_match},
	[MESSAGE_MATCHED] = {"MATCHED", MESSAGE_BYTES_MAX, false, true, put_matched, get_matched, deinit_match},
	[MESSAGE_BULK] = {"BULK", MESSAGE_BULK_BYTES_MAX + 16 * MESSAGE_BULK_MAX, false, true, put_bulk, get_bulk, deinit_bulk},
	[MESSAGE_PUSH] = {"PUSH", MESSAGE_BYTES_MAX, false, true, put_push, get_push, deinit_push},
};

const struct message_info *message_info(uint8_t type)
{
	return type < MESSAGE_TYPES && messages[type].name ? &messages[type] : NULL;
}

size_t message_max_bytes(uint8_t type)
{
	const struct message_info *info = message_info(type);

	return info ? info->max_bytes : 0;
}

int message_decode(uint8_t type, const void *payload, size_t n, union message *ret)
{
	const struct message_info *info = message_info(type);
	struct cursor c = cursor_over(payload, n);
	union message m;
	int r;

	if (!info || n > info->max_bytes)
		return -EBADMSG;
	memset(&m, 0, sizeof(m));
	info->get(&c, &m);
	r = cursor_finish(&c);
	if (r < 0) {
		info->deinit(&m);
		return r;
	}
	*ret = m;
	return 0;
}

int message_encode(uint8_t type, const union message *m, struct buf *ret)
{
	const struct message_info *info = message_info(type);

	if (!info)
		return -EINVAL;
	info->put(ret, m);
	return buf_error(ret);
}

void message_deinit(uint8_t type, union message *m)
{
	const struct message_info *info = message_info(type);

	if (info)
		info->deinit(m);
	memset(m, 0, sizeof(*m));
}
