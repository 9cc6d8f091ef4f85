/*
 * transfer/fetch_nodes.c — the chunk tree of a content that is wanted, from the root down: nodes that are here, too, are looked up,
 * the others asked for. See transfer/fetch_internal.h.
 *
 * Beside it goes a walk of the old version's tree, of those nodes only that the new one has not: where an edit was, they stand beside
 * those that are asked for, and have nearly the same entries. These are named in NODES_ASK as pieces are (transfer/pieces.h), so that
 * a node is told as what is new in it. Its hash decides, else it is asked for without names.
 *
 * At each level it is looked whether there are more nodes than a file of that size can have.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "transfer/fetch_internal.h"

#define OLD_NODES_MAX 4096 /* of a level; with more, nothing is named any more */

static void walk_free(struct node_walk *w)
{
	if (!w)
		return;
	for (size_t i = 0; w->children && i < w->n; i++)
		free(w->children[i]);
	free(w->children);
	free(w->n_children);
	free(w->entries);
	free(w->old);
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
	walk_free(w);
	return NULL;
}

/* --- the old version's tree --- */

DEFINE_CLEANUP(struct index_txn *, index_abort)

/* Append a node's children. Those that are zero, or whose node is not to be had, tell nothing. */
static int add_children(struct session *s, struct index_txn *t, const struct node_walk *w, const struct old_node *of,
	struct old_node **v, size_t *n, size_t *cap)
{
	cleanup(buf_deinit) struct buf payload = BUF_INIT;
	cleanup_free struct chunk_tree_entry *entries = NULL;
	uint64_t offset = of->offset;
	size_t n_entries = 0;
	uint8_t level;
	int r = index_node_get(t, &of->hash, &level, &payload);

	if (r != 0 || level != w->old_level)
		return r == -ENOMEM ? r : 0;
	r = chunk_tree_decode(store_algorithm(replica_store(s->replica)), &of->hash, level, payload.data, payload.len, &entries,
		&n_entries);
	for (size_t i = 0; i < n_entries && r == 0; offset += entries[i++].length) {
		r = array_reserve(v, cap, *n + 1, sizeof(**v));
		if (r == 0 && !entries[i].zero)
			(*v)[(*n)++] = (struct old_node){entries[i].hash, offset, entries[i].length};
	}
	return r == -ENOMEM ? r : 0;
}

/* w->old one level lower. */
static int old_descend(struct session *s, struct index_txn *t, struct node_walk *w)
{
	struct old_node *v = NULL;
	size_t n = 0, cap = 0;
	int r = 0;

	for (size_t i = 0; i < w->n_old && r == 0 && n <= OLD_NODES_MAX; i++)
		r = add_children(s, t, w, &w->old[i], &v, &n, &cap);
	free(w->old);
	w->old = v;
	w->n_old = r == 0 && n <= OLD_NODES_MAX ? n : 0;
	w->old_level--;
	return r;
}

static int compare_hashes(const void *a, const void *b)
{
	return hash_compare(a, b);
}

/* Of w->old, keep what is not among the entries. */
static int drop_common(struct node_walk *w)
{
	struct hash *hashes = w->n_old ? calloc(w->n, sizeof(*hashes)) : NULL;
	size_t kept = 0;

	if (!w->n_old)
		return 0;
	if (!hashes)
		return -ENOMEM;
	for (size_t i = 0; i < w->n; i++)
		hashes[i] = w->entries[i].hash;
	qsort(hashes, w->n, sizeof(*hashes), compare_hashes);
	for (size_t i = 0; i < w->n_old; i++)
		if (!bsearch(&w->old[i].hash, hashes, w->n, sizeof(*hashes), compare_hashes))
			w->old[kept++] = w->old[i];
	w->n_old = kept;
	free(hashes);
	return 0;
}

/* Down to the walk's level. */
static int old_follow(struct session *s, struct index_txn *t, struct node_walk *w)
{
	int r = 0;

	while (r == 0 && w->n_old && w->old_level > w->level)
		r = old_descend(s, t, w);
	return r == 0 && w->old_level == w->level ? drop_common(w) : r;
}

/* May the peer be told what the old version is made of? Where we send nothing, only what came from it. */
static int old_begin(struct session *s, const struct offer *o, struct node_walk *w)
{
	cleanup(index_abort_p) struct index_txn *t = NULL;
	cleanup(row_deinit) struct row row = {0};
	const struct content *content = &row.record.content;
	int r = index_begin_read(replica_index(s->replica), &t);

	if (r == 0)
		r = index_get(t, o->path, &row);
	if (r != 0 || !row_live(&row) || row.place != ROW_ON_DISK || row.record.kind != RECORD_FILE || !content->height ||
			content->height > CHUNK_TREE_HEIGHT_MAX || (!session_we_send(s) && row.source != s->peer_replica))
		return r < 0 ? r : 0;
	w->old = calloc(1, sizeof(*w->old));
	if (!w->old)
		return -ENOMEM;
	*w->old = (struct old_node){content->root, 0, content->size};
	w->n_old = 1;
	w->old_level = content->height;
	w->old_size = content->size;
	return old_follow(s, t, w);
}

/* The entries of one old node, as they are in its payload. */
static int name_node(struct session *s, struct index_txn *t, const struct node_walk *w, const struct old_node *old,
	struct nodes_request *request)
{
	size_t before = request->old.len, named = request->n_pieces;
	uint8_t level;
	int r = index_node_get(t, &old->hash, &level, &request->old);

	if (r == 0 && level == w->level)
		r = array_reserve(&request->pieces, &request->cap_pieces, request->n_pieces + CHUNK_TREE_FANOUT_MAX,
			sizeof(*request->pieces));
	if (r != 0 || level != w->level)
		return r == -ENOMEM ? r : 0;
	pieces_cut(request->old.data + before, request->old.len - before, before, chunk_tree_entry_bytes, 0, s->seed, request->pieces,
		request->n_pieces + CHUNK_TREE_FANOUT_MAX, &request->n_pieces);
	s->names_out += request->n_pieces - named;
	return 0;
}

/* The entries of those old nodes that stand where [from, to) of the new version is. */
static int name_nodes(struct session *s, struct index_txn *t, const struct node_walk *w, uint64_t from, uint64_t to,
	uint64_t new_size, struct nodes_request *request)
{
	uint64_t moved = w->old_size > new_size ? w->old_size - new_size : new_size - w->old_size;
	int r = 0;

	if (w->old_level != w->level)
		return 0;
	from = from > moved ? from - moved : 0;
	to += moved;
	for (size_t i = 0; i < w->n_old && r == 0; i++)
		if (w->old[i].offset < to && w->old[i].offset + w->old[i].length > from &&
				request->n_pieces + CHUNK_TREE_FANOUT_MAX <= MESSAGE_NODE_NAMES_MAX &&
				s->names_out + CHUNK_TREE_FANOUT_MAX <= SESSION_NAMES_MAX / 2)
			r = name_node(s, t, w, &w->old[i], request);
	return r;
}

/* --- the walk --- */

int fetch_nodes_begin(struct session *s, struct offer *o)
{
	struct chunk_tree_entry *root = malloc(sizeof(*root));

	if (!root)
		return -ENOMEM;
	*root = (struct chunk_tree_entry){.hash = o->theirs.content.root, .length = o->theirs.content.size};
	o->walk = walk_new(o->theirs.content.height, root, 1);
	return o->walk ? old_begin(s, o, o->walk) : -ENOMEM;
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
static int descend(struct session *s, struct index_txn *t, struct offer *o)
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
	if (level == 0) {
		fetch_nodes_free(o);
		return fetch_add_op(s, (struct stage_op){.offer = o, .entries = entries, .n_entries = n});
	}
	below = walk_new(level, entries, n);
	if (below) {
		below->old = steal(w->old);
		below->n_old = w->n_old;
		below->old_level = w->old_level;
		below->old_size = w->old_size;
	}
	walk_free(w);
	o->walk = below;
	return below ? old_follow(s, t, below) : -ENOMEM;
}

static void request_free(struct session *s, struct nodes_request *request)
{
	s->names_out -= request->n_pieces;
	free(request->slots);
	buf_deinit(&request->old);
	free(request->pieces);
	free(request);
}

/* Takes the request over: its slots and names. */
static int ask_nodes(struct session *s, struct nodes_request *request)
{
	struct nodes_request **at = &s->nodes_out;
	const struct chunk_tree_entry *entries = request->offer->walk->entries;
	struct hash hashes[MESSAGE_NODES_MAX];
	cleanup_free uint32_t *names = calloc(request->n_pieces + 1, sizeof(*names));
	union message m = {.nodes_ask = {.v = hashes, .n = request->n, .names = names, .n_names = request->n_pieces}};

	if (!names) {
		request_free(s, request);
		return -ENOMEM;
	}
	request->id = m.nodes_ask.id = s->next_id++;
	for (size_t i = 0; i < request->n; i++)
		hashes[i] = entries[request->slots[i]].hash;
	for (size_t i = 0; i < request->n_pieces; i++)
		names[i] = request->pieces[i].name;
	request->offer->refs++;
	while (*at)
		at = &(*at)->next;
	*at = request;
	return session_send(s, MESSAGE_NODES_ASK, &m);
}

static struct nodes_request *request_new(struct offer *o)
{
	struct nodes_request *request = calloc(1, sizeof(*request));

	if (request && !(request->slots = calloc(MESSAGE_NODES_MAX, sizeof(*request->slots)))) {
		free(request);
		return NULL;
	}
	if (request)
		request->offer = o;
	return request;
}

/* Look up nodes of this level, until there are enough others to be asked for. *ret: these, NULL if there are none. */
static int look_up(struct session *s, struct index_txn *t, struct offer *o, struct nodes_request **ret)
{
	struct node_walk *w = o->walk;
	struct nodes_request *request = request_new(o);
	uint64_t from = 0;
	int r = request ? 0 : -ENOMEM;

	while (r == 0 && w->asked < w->n && request->n < MESSAGE_NODES_MAX) {
		const struct chunk_tree_entry *entry = &w->entries[w->asked];
		struct buf payload = BUF_INIT;
		uint8_t level;

		r = index_node_get(t, &entry->hash, &level, &payload);
		if (r == 0 && level == w->level) {
			r = resolve(s, o, w->asked, payload.data, payload.len);
		} else if (r >= 0) {
			if (!request->n)
				from = w->asked_bytes;
			request->slots[request->n++] = w->asked;
			r = 0;
		}
		buf_deinit(&payload);
		w->asked++;
		w->asked_bytes += entry->length;
	}
	if (r == 0 && request->n)
		r = name_nodes(s, t, w, from, w->asked_bytes, o->theirs.content.size, request);
	if (r == 0 && request->n)
		*ret = steal(request);
	if (request)
		request_free(s, request);
	return r;
}

int fetch_nodes_pump(struct session *s, struct offer *o)
{
	while (o->walk && !o->failed) {
		cleanup(index_abort_p) struct index_txn *t = NULL;
		struct nodes_request *request = NULL;
		int r;

		if (o->walk->unresolved && o->walk->asked == o->walk->n)
			return 0; /* answers are due */
		r = index_begin_read(replica_index(s->replica), &t);
		if (r == 0)
			r = o->walk->unresolved ? look_up(s, t, o, &request) : descend(s, t, o);
		if (r == -EFBIG) {
			fetch_fail_offer(o, r);
			return 0;
		}
		if (r == 0 && request)
			r = ask_nodes(s, request);
		if (r < 0)
			return r;
	}
	return 0;
}

/* --- answers --- */

static int read_entries(void *ret, size_t n, uint64_t offset, void *data)
{
	const struct buf *old = data;

	memcpy(ret, old->data + offset, n); /* a piece that was cut from it */
	return 0;
}

/* One node of an answer. *ret_again: what was told is not it. */
static int take_node(struct session *s, struct nodes_request *request, size_t i, const struct message_node *node, bool *ret_again)
{
	struct offer *o = request->offer;
	cleanup_free uint8_t *payload = NULL;
	int r;

	*ret_again = false;
	if (node->present == MESSAGE_NODE_ABSENT) {
		fetch_fail_offer(o, -ESTALE);
		return 0;
	}
	if (node->present == MESSAGE_NODE_WHOLE)
		return resolve(s, o, request->slots[i], node->payload, node->n);
	payload = request->n_pieces ? malloc(node->length + 1) : NULL;
	if (!payload)
		return request->n_pieces ? -ENOMEM : -EBADMSG;
	r = pieces_rebuild(node->payload, node->n, request->pieces, request->n_pieces, read_entries, &request->old, payload,
		node->length);
	if (r != 0)
		return r;
	r = resolve(s, o, request->slots[i], payload, node->length);
	*ret_again = r == -EBADMSG;
	return *ret_again ? 0 : r;
}

int fetch_nodes(struct session *s, const struct message_nodes *m)
{
	struct nodes_request **at = &s->nodes_out, *request;
	struct offer *o;
	size_t n_again = 0;
	bool again;
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
		r = take_node(s, request, i, &m->v[i], &again);
		if (r == 0 && again)
			request->slots[n_again++] = request->slots[i];
	}
	if (r == 0 && n_again && !o->failed) {
		request->n = n_again;
		s->names_out -= request->n_pieces;
		request->n_pieces = 0;
		r = ask_nodes(s, request);
	} else {
		request_free(s, request);
	}
	if (r == -EBADMSG)
		return session_protocol_error(s, "a node that is not what it was announced to be");
	if (r == -EFBIG) {
		fetch_fail_offer(o, r);
		r = 0;
	}
	if (r == 0)
		r = fetch_nodes_pump(s, o);
	fetch_close_offer(o);
	return r;
}

void fetch_nodes_free(struct offer *o)
{
	walk_free(o->walk);
	o->walk = NULL;
}

void fetch_nodes_reset(struct session *s)
{
	while (s->nodes_out) {
		struct nodes_request *request = s->nodes_out;

		s->nodes_out = request->next;
		request_free(s, request);
	}
}
