/*
 * transfer/fetch_nodes.c — the list of a large content's chunks: its tree, walked from the root down, a level at a time. See
 * transfer/fetch_internal.h.
 *
 * Nodes that are here, in any file's tree, are not asked for. At each level it is looked whether there are more than a file of that
 * size can have.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "transfer/fetch_internal.h"

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

static int ask_nodes(struct session *s, struct offer *o, const size_t *slots, size_t n)
{
	struct hash hashes[MESSAGE_NODES_MAX];
	struct nodes_request *request = calloc(1, sizeof(*request)), **at = &s->nodes_out;
	union message m = {.nodes_ask = {.v = hashes, .n = n}};

	if (!request || !(request->slots = malloc(n * sizeof(*slots)))) {
		free(request);
		return -ENOMEM;
	}
	memcpy(request->slots, slots, n * sizeof(*slots));
	request->id = m.nodes_ask.id = s->next_id++;
	request->offer = o;
	request->n = n;
	for (size_t i = 0; i < n; i++)
		hashes[i] = o->walk->entries[slots[i]].hash;
	o->refs++;
	while (*at)
		at = &(*at)->next;
	*at = request;
	return session_send(s, MESSAGE_NODES_ASK, &m);
}

/* Look up the nodes of this level here, ask for the others. */
int fetch_pump_walk(struct session *s, struct offer *o)
{
	while (o->walk && !o->failed) {
		struct node_walk *w = o->walk;
		size_t slots[MESSAGE_NODES_MAX], n = 0;
		struct index_txn *t = NULL;
		int r;

		if (!w->unresolved) {
			r = descend(s, o);
			if (r < 0)
				return r;
			continue;
		}
		if (w->asked == w->n)
			return 0; /* answers are due */
		r = index_begin_read(replica_index(s->replica), &t);
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
		index_abort(t);
		if (r == -EFBIG) {
			fetch_fail(o, r);
			return 0;
		}
		if (r == 0 && n)
			r = ask_nodes(s, o, slots, n);
		if (r < 0)
			return r;
	}
	return 0;
}

int fetch_nodes(struct session *s, const struct message_nodes *m)
{
	struct nodes_request **at = &s->nodes_out, *request;
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
		if (!m->v[i].present)
			fetch_fail(o, -ESTALE);
		else
			r = resolve(s, o, request->slots[i], m->v[i].payload, m->v[i].n);
	}
	free(request->slots);
	free(request);
	if (r == -EBADMSG)
		return session_protocol_error(s, "a node that is not what it was announced to be");
	if (r == -EFBIG) {
		fetch_fail(o, r);
		r = 0;
	}
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
		free(request->slots);
		free(request);
	}
}
