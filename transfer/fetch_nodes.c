/*
 * transfer/fetch_nodes.c — the list of a large content's chunks: its tree, walked from the root down, a level at a time. See
 * transfer/fetch_internal.h.
 *
 *   look here ──▶ NODES_ASK   ──▶ NODES        the others, as they are
 *            └──▶ NODES_NAMED ──▶ NODES_TOLD   the same, where the old version has such a tree: what stands about there in it is named,
 *                                              as the pieces of chunks are (transfer/pieces.h), one piece an entry
 *
 * An edit changes a node a level, and in it an entry or two of a hundred; a hash is told by a name of 4 bytes, or, next to others, by
 * nothing. Nodes that are here, in any file's tree, are not asked for at all. What was not told as it is, as two entries have
 * one name, is asked for without names. At each level it is looked whether there are more nodes than a file of that size can have.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "transfer/fetch_internal.h"

#define NAMED_BYTES_MAX (MESSAGE_NODE_NAMES_MAX * (HASH_BYTES + 2)) /* of old nodes, whose shortest entry has so many */

DEFINE_CLEANUP(struct index_txn *, index_abort)

void fetch_walk_free(struct node_walk *w)
{
	if (!w)
		return;
	for (size_t i = 0; w->children && i < w->n; i++)
		free(w->children[i]);
	free(w->children);
	free(w->n_children);
	free(w->entries);
	free(w);
}

/* Takes the entries over. */
static struct node_walk *walk_new(uint8_t level, struct chunk_tree_entry *entries, size_t n)
{
	struct node_walk *w = calloc(1, sizeof(*w));

	if (!w) {
		free(entries);
		return NULL;
	}
	w->level = level;
	w->entries = entries;
	w->n = w->unresolved = n;
	w->children = calloc(n, sizeof(*w->children));
	w->n_children = calloc(n, sizeof(*w->n_children));
	if (w->children && w->n_children)
		return w;
	fetch_walk_free(w);
	return NULL;
}

int fetch_begin_walk(struct offer *o)
{
	struct chunk_tree_entry *root = malloc(sizeof(*root));

	if (!root)
		return -ENOMEM;
	*root = (struct chunk_tree_entry){.hash = o->theirs.content.root, .length = o->theirs.content.size};
	o->walk = walk_new(o->theirs.content.height, root, 1);
	return o->walk ? 0 : -ENOMEM;
}

/* All nodes but the last of a level have two children at least. */
static int check_count(const struct offer *o)
{
	const struct content *content = &o->theirs.content;
	const struct node_walk *w = o->walk;

	if (w->below > (chunk_count_max(content->size, content->chunk_bits) >> (w->level - 1)) + 1)
		return -EBADMSG;
	return w->below > SESSION_CHUNKS_MAX ? -EFBIG : 0;
}

/* Take a node's payload for position i of the walk. -EBADMSG: it is not what its parent announced;
 * -EFBIG: too many. */
static int resolve(struct session *s, struct offer *o, size_t i, const void *payload, size_t n)
{
	struct node_walk *w = o->walk;
	uint64_t sum = 0;
	int r;

	if (w->children[i])
		return 0;
	r = chunk_tree_decode(store_algorithm(replica_store(s->replica)), &w->entries[i].hash, w->level, payload, n,
		&w->children[i], &w->n_children[i]);
	if (r < 0)
		return r;
	for (size_t j = 0; j < w->n_children[i]; j++)
		sum += w->children[i][j].length; /* decode checked against overflow */
	if (sum != w->entries[i].length)
		return -EBADMSG;
	w->unresolved--;
	w->below += w->n_children[i];
	return check_count(o);
}

/* One level down; at the chunks: hand them to the stage. */
static int descend(struct session *s, struct offer *o)
{
	struct node_walk *w = o->walk, *below;
	struct chunk_tree_entry *entries = calloc(w->below, sizeof(*entries));
	size_t n = w->below, at = 0;
	uint8_t level = w->level - 1;

	if (!entries)
		return -ENOMEM;
	for (size_t i = 0; i < w->n; i++) {
		memcpy(entries + at, w->children[i], w->n_children[i] * sizeof(*entries));
		at += w->n_children[i];
	}
	fetch_walk_free(w);
	o->walk = NULL;
	if (level == 0)
		return fetch_add_op(s, (struct stage_op){.offer = o, .entries = entries, .n_entries = n});
	below = walk_new(level, entries, n);
	o->walk = below;
	return below ? 0 : -ENOMEM;
}

/* --- what stands there in the old version --- */

struct old_nodes {
	struct index_txn *t;
	enum hash_algorithm algorithm;
	uint8_t level;	   /* wanted */
	uint64_t from, to; /* so does what they stand for: bytes of the old version */
	uint64_t done;	   /* of it: what begins before was looked at */
	struct buf *ret;
};

static int add_old(struct old_nodes *old, const struct hash *hash, uint8_t level, uint64_t begin, uint64_t end)
{
	cleanup(buf_deinit) struct buf payload = BUF_INIT;
	cleanup_free struct chunk_tree_entry *entries = NULL;
	uint8_t found;
	size_t n = 0;
	int r = index_node_get(old->t, hash, &found, &payload);

	if (r != 0 || found != level)
		return r;
	if (level == old->level) {
		if (begin >= old->done && old->ret->len + payload.len <= NAMED_BYTES_MAX)
			put_bytes(old->ret, payload.data, payload.len);
		old->done = end;
		return buf_error(old->ret);
	}
	r = chunk_tree_decode(old->algorithm, hash, level, payload.data, payload.len, &entries, &n);
	for (size_t i = 0; r == 0 && i < n && begin < old->to; begin += entries[i++].length)
		if (begin + entries[i].length > old->from)
			r = add_old(old, &entries[i].hash, level - 1, begin, begin + entries[i].length);
	return r;
}

/* May the peer be told what the old version is made of, and was it cut like this one? */
static bool old_version(const struct session *s, struct index_txn *t, const struct offer *o, struct content *ret)
{
	cleanup(row_deinit) struct row row = {0};

	if (frame_reader_version(s->reader) < FRAME_VERSION_TOLD || index_get(t, o->path, &row) != 0 || !row_live(&row) ||
		row.place != ROW_ON_DISK || row.record.kind != RECORD_FILE)
		return false;
	*ret = row.record.content;
	return ret->height >= o->walk->level && ret->chunk_bits == o->theirs.content.chunk_bits &&
	       fetch_may_name(s, row.source);
}

/* About where the slots stand, they stood in the old version: exactly there, or as much farther as it is longer, unless that
 * is more than they span. */
static int find_old(struct old_nodes *old, const struct content *content, const struct offer *o, const size_t *slots, size_t n)
{
	const struct node_walk *w = o->walk;
	uint64_t size = o->theirs.content.size, offset = 0;
	uint64_t longer = content->size > size ? content->size - size : 0, shorter = size > content->size ? size - content->size : 0;
	int r = 0;

	for (size_t i = 0, k = 0; r == 0 && k < n; offset += w->entries[i++].length) {
		uint64_t length = w->entries[i].length;

		if (i != slots[k])
			continue;
		old->from = offset - (shorter <= length && shorter <= offset ? shorter : 0);
		old->to = offset + length + (longer <= length ? longer : 0);
		r = add_old(old, &content->root, content->height, 0, content->size);
		k++;
	}
	return r;
}

static void nodes_request_free(struct session *s, struct nodes_request *request)
{
	fetch_pieces_unref(s, request->pieces);
	buf_deinit(&request->old);
	free(request->slots);
	free(request);
}

/* What can't be looked up is not named. */
static int name_old(struct session *s, struct nodes_request *request, struct index_txn *t)
{
	const struct offer *o = request->offer;
	struct old_nodes old = {.t = t, .algorithm = store_algorithm(replica_store(s->replica)), .level = o->walk->level, .ret = &request->old};
	struct content content;
	size_t n;

	if (!old_version(s, t, o, &content) || find_old(&old, &content, o, request->slots, request->n) == -ENOMEM)
		return buf_error(&request->old);
	n = pieces_count(request->old.data, request->old.len, PIECES_ENTRIES);
	if (!n || s->names_out + n > SESSION_NAMES_MAX / 2) /* the rest is for pieces */
		return 0;
	request->pieces = fetch_pieces_new(s, PIECES_ENTRIES, n);
	if (!request->pieces)
		return -ENOMEM;
	pieces_cut(request->old.data, request->old.len, 0, PIECES_ENTRIES, s->seed, request->pieces->v, n, &request->pieces->n);
	return 0;
}

/* --- asking --- */

static int send_ask(struct session *s, const struct nodes_request *request)
{
	struct hash hashes[MESSAGE_NODES_MAX];
	const struct named_pieces *pieces = request->pieces;
	cleanup_free uint32_t *names = pieces ? calloc(pieces->n, sizeof(*names)) : NULL;
	union message m = {.nodes_ask = {.id = request->id, .v = hashes, .n = request->n, .names = names}};

	if (pieces && !names)
		return -ENOMEM;
	for (size_t i = 0; i < request->n; i++)
		hashes[i] = request->offer->walk->entries[request->slots[i]].hash;
	for (; pieces && m.nodes_ask.n_names < pieces->n; m.nodes_ask.n_names++)
		names[m.nodes_ask.n_names] = pieces->v[m.nodes_ask.n_names].name;
	return session_send(s, pieces ? MESSAGE_NODES_NAMED : MESSAGE_NODES_ASK, &m);
}

/* t: to name what the old version has there; NULL: nothing is named. */
static int ask_nodes(struct session *s, struct offer *o, struct index_txn *t, const size_t *slots, size_t n)
{
	struct nodes_request *request = calloc(1, sizeof(*request)), **at = &s->nodes_out;
	int r;

	if (!request || !(request->slots = malloc(n * sizeof(*slots)))) {
		free(request);
		return -ENOMEM;
	}
	memcpy(request->slots, slots, n * sizeof(*slots));
	request->id = s->next_id++;
	request->offer = o;
	request->n = n;
	o->refs++;
	while (*at)
		at = &(*at)->next;
	*at = request;
	r = t ? name_old(s, request, t) : 0;
	return r < 0 ? r : send_ask(s, request);
}

/* The next ones that are not here are asked for. */
static int look_up(struct session *s, struct offer *o)
{
	cleanup(index_abort_p) struct index_txn *t = NULL;
	struct node_walk *w = o->walk;
	size_t slots[MESSAGE_NODES_MAX], n = 0;
	int r = index_begin_read(replica_index(s->replica), &t);

	while (r == 0 && w->asked < w->n && n < MESSAGE_NODES_MAX) {
		struct buf payload = BUF_INIT;
		uint8_t level;

		r = index_node_get(t, &w->entries[w->asked].hash, &level, &payload);
		if (r == 0 && level == w->level)
			r = resolve(s, o, w->asked, payload.data, payload.len);
		else if (r >= 0)
			slots[n++] = w->asked, r = 0;
		buf_deinit(&payload);
		w->asked++;
	}
	return r == 0 && n ? ask_nodes(s, o, t, slots, n) : r;
}

int fetch_pump_walk(struct session *s, struct offer *o)
{
	int r = 0;

	while (r == 0 && o->walk && !o->failed) {
		if (o->walk->unresolved && o->walk->asked == o->walk->n)
			return 0; /* answers are due */
		r = o->walk->unresolved ? look_up(s, o) : descend(s, o);
		if (r == -EFBIG) {
			fetch_fail(o, r);
			return 0;
		}
	}
	return r;
}

/* --- answers --- */

static int read_old(void *ret, size_t n, uint64_t offset, void *data)
{
	memcpy(ret, ((const struct buf *)data)->data + offset, n);
	return 0;
}

/* The node that comes of it need not be the one. */
static int take_told(struct session *s, struct nodes_request *request, size_t i, const struct message_node *node)
{
	const struct named_pieces *pieces = request->pieces;
	cleanup_free uint8_t *payload = malloc(node->length ? node->length : 1);
	int r;

	if (!payload)
		return -ENOMEM;
	r = pieces_rebuild(node->payload, node->n, pieces->v, pieces->n, read_old, &request->old, payload, node->length);
	return r == 0 ? resolve(s, request->offer, request->slots[i], payload, node->length) : r;
}

/* *ret_again: it is not told as it is, and to be asked for without names. */
static int take_node(struct session *s, struct nodes_request *request, size_t i, const struct message_node *node, bool *ret_again)
{
	struct offer *o = request->offer;
	int r;

	*ret_again = false;
	if (node->present == MESSAGE_NODE_ABSENT) {
		fetch_fail(o, -ESTALE);
		return 0;
	}
	if (node->present == MESSAGE_NODE_WHOLE)
		return resolve(s, o, request->slots[i], node->payload, node->n);
	if (!request->pieces)
		return session_protocol_error(s, "NODES_TOLD with names that nobody gave");
	r = take_told(s, request, i, node);
	*ret_again = r == -EBADMSG && !o->walk->children[request->slots[i]];
	return *ret_again ? 0 : r;
}

int fetch_nodes(struct session *s, const struct message_nodes *m)
{
	struct nodes_request **at = &s->nodes_out, *request;
	size_t again[MESSAGE_NODES_MAX], n_again = 0;
	struct offer *o;
	int r = 0;

	while (*at && (*at)->id != m->id)
		at = &(*at)->next;
	request = *at;
	if (!request || request->n != m->n)
		return session_protocol_error(s, "NODES that nobody asked for");
	*at = request->next;
	o = request->offer;
	o->refs--;
	for (size_t i = 0; i < m->n && r == 0 && !o->failed; i++) {
		bool mistaken;

		r = take_node(s, request, i, &m->v[i], &mistaken);
		if (r == 0 && mistaken)
			again[n_again++] = request->slots[i];
	}
	nodes_request_free(s, request);
	if (r == -EBADMSG)
		return session_protocol_error(s, "a node that is not what it was announced to be");
	if (r == -EFBIG) {
		fetch_fail(o, r);
		r = 0;
	}
	if (r == 0 && n_again && !o->failed)
		r = ask_nodes(s, o, NULL, again, n_again);
	if (r == 0)
		r = fetch_pump_walk(s, o);
	fetch_close(o);
	return r;
}

void fetch_nodes_reset(struct session *s)
{
	while (s->nodes_out) {
		struct nodes_request *request = s->nodes_out;

		s->nodes_out = request->next;
		nodes_request_free(s, request);
	}
}
