/* syncd/folder_status.c — what is not in sync, and how a folder is: for people, and as JSON. */
#include "syncd/folder_internal.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/log.h"
#include "syncd/report.h"
#include "syncd/watch.h"

#define PROBLEMS_MAX 10000
#define AGAIN_MIN_NS (5 * CLOCK_NS_PER_S)
#define AGAIN_MAX_NS (10 * 60 * CLOCK_NS_PER_S)
#define AGAIN_AT_ONCE 64

/* --- problems --- */

void folder_forget_problem(struct folder *f, struct problem *p)
{
	HASH_DEL(f->problems, p);
	free(p->why);
	free(p);
}

struct problem *folder_note_problem(struct folder *f, const char *path, const char *why, const char *todo, const void *origin,
	unsigned generation)
{
	struct problem *p = NULL;

	HASH_FIND_STR(f->problems, path, p);
	if (!p) {
		if (HASH_COUNT(f->problems) >= PROBLEMS_MAX || !(p = calloc(1, sizeof(*p) + strlen(path) + 1)))
			return NULL;
		strcpy(p->path, path);
		p->since_ns = clock_wall_ns();
		HASH_ADD_STR(f->problems, path, p);
		if (!p->hh.tbl) {
			free(p);
			return NULL;
		}
	}
	if (!p->why || strcmp(p->why, why) != 0) {
		free(p->why);
		p->why = strdup(why);
		p->since_ns = clock_wall_ns();
		p->unread_ns = 0;
		if (f->options.holder || f->options.watch) /* one-shot commands say it at their end */
			log_warning("%s: %s: %s", f->name, quoted(path), why);
	}
	p->todo = todo;
	p->local = p->unread = false;
	p->origin = origin;
	p->generation = generation;
	return p;
}

void folder_clear_problem(struct folder *f, const char *path)
{
	struct problem *p = NULL;

	HASH_FIND_STR(f->problems, path, p);
	if (p)
		folder_forget_problem(f, p);
}

/* Problems of an origin that its newest look did not find again. */
void folder_expire_problems(struct folder *f, const void *origin, unsigned generation)
{
	struct problem *p, *next;

	HASH_ITER(hh, f->problems, p, next) {
		if (p->origin == origin && p->generation != generation)
			folder_forget_problem(f, p);
	}
}

/* Local changes that wait for somebody to fetch from. */
uint64_t folder_count_local(const struct folder *f)
{
	uint64_t n = 0;

	for (const struct problem *p = f->problems; p; p = p->hh.next)
		n += p->local;
	return n;
}

uint64_t folder_count_unread(const struct folder *f)
{
	uint64_t n = 0;

	for (const struct problem *p = f->problems; p; p = p->hh.next)
		n += p->unread;
	return n;
}

static void note_unread(struct folder *f, const char *path, const char *why, const char *todo, bool distrusted)
{
	struct problem *p = folder_note_problem(f, path, why, todo, NULL, f->scan_generation);
	int64_t now = clock_monotonic_ns();

	if (!p)
		return;
	p->unread = true;
	p->distrusted = distrusted;
	if (!p->unread_ns)
		p->unread_ns = now;
	p->again_ns = now + AGAIN_MIN_NS + (now - p->unread_ns < AGAIN_MAX_NS ? now - p->unread_ns : AGAIN_MAX_NS);
}

void folder_read_again(struct folder *f)
{
	int64_t now = clock_monotonic_ns();
	unsigned n = 0;

	if (f->scan_wanted || (f->errand && f->errand->whole))
		return; /* that is not to be hurried for it */
	for (struct problem *p = f->problems; p && n < AGAIN_AT_ONCE; p = p->hh.next) {
		if (!p->again_ns || now < p->again_ns)
			continue;
		p->again_ns = 0; /* the scan tells it once more, if it is so */
		folder_mark_dirty(f, p->path, true, 0);
		if (p->distrusted)
			folder_distrust(f, p->path);
		n++;
	}
}

static void note_local(struct folder *f, const char *path)
{
	struct problem *p = folder_note_problem(f, path, "changed here, where changes are undone",
		"it goes to trash once a peer is connected: copy elsewhere what is to be kept", NULL, f->scan_generation);

	if (p)
		p->local = true;
}

void folder_note_scan(struct folder *f, const struct told *t, bool distrusted)
{
	char why[256];

	if (t->error == OBSERVE_LOCAL) {
		note_local(f, t->path);
		return;
	}
	if (t->error == OBSERVE_UNFINISHED) {
		note_unread(f, t->path, "a change of it was interrupted, and could not be looked at since",
			"nothing: it is looked at again within ten minutes, or with the next run", distrusted);
		return;
	}
	if (t->error == OBSERVE_COVERS) {
		note_unread(f, t->path, "it was a directory, and not all that was in it could be looked at",
			"see to what is told of the directory above", distrusted);
		return;
	}
	switch (t->what) {
	case SCAN_NEW:
		if (t->error == FILE_NOT_EMPTY)
			folder_note_problem(f, t->path, "made here, where changes are undone; something in it is ignored or not synced",
				"move that elsewhere, and remove the directory", NULL, f->scan_generation);
		break;
	case SCAN_LEFT_OUT:
		folder_note_problem(f, t->path, "left out: not a file, directory or symlink, or of another file system",
			"nothing; it is never treated as deleted", NULL, f->scan_generation);
		break;
	case SCAN_ERROR:
		snprintf(why, sizeof(why), "cannot be read: %s", file_error_text(t->error));
		note_unread(f, t->path, why, "make it readable for the user that runs syncd; nothing below counts as deleted", distrusted);
		break;
	case SCAN_UNSETTLED:
		if (!f->options.watch) /* who watches looks again when it settles; a command is over by then */
			note_unread(f, t->path, "being written", "run it again once nobody writes to it", distrusted);
		break;
	default:
		break;
	}
}

/* --- telling --- */

size_t folder_problem_count(const struct folder *f)
{
	return HASH_COUNT(f->problems);
}

json_t *folder_problems_json(const struct folder *f, size_t limit)
{
	json_t *list = json_array();

	for (const struct problem *p = f->problems; p && limit--; p = p->hh.next)
		json_array_append_new(list, json_pack("{s:o, s:s, s:I, s:s}", "path", report_name(p->path), "why", p->why ? p->why : "",
						    "since", (json_int_t)(p->since_ns / CLOCK_NS_PER_S), "todo", p->todo));
	return list;
}

static const char *state_word(enum session_state state)
{
	static const char *const words[] = {"connecting", "preparing", "syncing", "idle", "ended"};

	return words[state];
}

static json_t *session_json(const struct folder_session *s)
{
	struct session_status st;
	struct link_rates rates;
	char id[20], root[65];
	json_t *o;

	session_status(link_session(s->link), &st);
	link_rates(s->link, &rates);
	snprintf(id, sizeof(id), "%016" PRIx64, st.peer_replica);
	o = json_pack("{s:o, s:s, s:s, s:o, s:b, s:b, s:i, s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:b, s:b, s:b}", "peer",
		report_name(s->peer), "state", state_word(st.state), "replica", id, "name", report_name(st.peer_name), "in_sync", st.in_sync, "stuck", st.stuck,
		"round", (int)st.round, "peer_root", hash_hex(&st.peer_root, HASH_BYTES, root), "bytes_in", (json_int_t)st.bytes_in,
		"bytes_out", (json_int_t)st.bytes_out, "content_in", (json_int_t)st.content_in, "content_out",
		(json_int_t)st.content_out, "applied", (json_int_t)st.applied, "conflicts", (json_int_t)st.conflicts, "skipped",
		(json_int_t)st.skipped, "held", (json_int_t)st.held, "peer_held", (json_int_t)st.peer_held, "pending", (json_int_t)st.pending, "local_differences",
		(json_int_t)st.differences, "since",
		(json_int_t)(s->since_ns / CLOCK_NS_PER_S), "policy_differs", st.policy_differs, "ignore_differs", st.ignore_differs,
		"served", !s->options.client);
	json_object_update_new(o, json_pack("{s:I, s:I, s:I, s:I}", "rate_in", (json_int_t)rates.down, "rate_out", (json_int_t)rates.up,
					  "limit_up", (json_int_t)rates.limit_up, "limit_down", (json_int_t)rates.limit_down));
	return o;
}

static const char *tier_word(const struct file_abilities *a)
{
	return a->exchange ? "exchange" : "link and rename (a reader may see a replaced name missing for microseconds)";
}

static void add_rebuilt_json(const struct folder *f, json_t *o)
{
	const struct store *store = replica_store(f->replica);
	const struct rebuild *rebuilt = store_rebuilt(store);
	char kept[4096];

	if (!rebuilt)
		return;
	folder_kept_path(store, &f->options, kept, sizeof(kept));
	json_object_set_new(o, "index_rebuilt", json_pack("{s:I, s:s, s:o}", "when", (json_int_t)rebuilt->last_s, "why", rebuilt->why,
						      "kept", report_name(kept)));
}

static void add_index_json(struct folder *f, json_t *o)
{
	struct index_txn *t = NULL;
	struct index_counts counts = {0};
	struct hash root = {0};
	struct knowledge k = {0};
	char hex[65];

	if (index_begin_read(replica_index(f->replica), &t) < 0)
		return;
	if (tree_root(t, TREE_LIVE, &root) == 0 && index_counts(t, &counts) == 0 && replica_knowledge_read(t, &k) == 0) {
		json_object_set_new(o, "root", json_string(hash_hex(&root, HASH_BYTES, hex)));
		json_object_set_new(o, "entries", json_integer((json_int_t)counts.live));
		json_object_set_new(o, "tombstones", json_integer((json_int_t)counts.tombstones));
		json_object_set_new(o, "bytes", json_integer((json_int_t)counts.bytes));
		json_object_set_new(o, "exceptions", json_integer((json_int_t)k.n));
		json_object_set_new(o, "members", report_members(t, &k, f->replica));
	}
	knowledge_deinit(&k);
	index_abort(t);
}

/* Deletions of peers' that are held here. */
static uint64_t held_of_peers(const struct folder *f)
{
	uint64_t held = 0;

	for (const struct folder_session *s = f->sessions; s; s = s->next) {
		struct session_status st;

		session_status(link_session(s->link), &st);
		held += st.held;
	}
	return held;
}

/* From what the peers have, of whom this folder only takes; and what is to be undone. */
static uint64_t local_differences(const struct folder *f)
{
	uint64_t n = folder_count_local(f);

	for (const struct folder_session *s = f->sessions; s; s = s->next) {
		struct session_status st;

		session_status(link_session(s->link), &st);
		n += st.differences;
	}
	return n;
}

json_t *folder_status_json(struct folder *f)
{
	struct store *store = replica_store(f->replica);
	json_t *o = json_object(), *sessions = json_array();
	char id[20];

	json_object_set_new(o, "folder", json_string(f->name));
	json_object_set_new(o, "path", report_name(f->path));
	json_object_set_new(o, "state", json_string(f->halted ? "halted" : !f->scanned ? "scanning" : "ready"));
	if (f->halted)
		json_object_set_new(o, "reason", json_string(f->halt_reason));
	snprintf(id, sizeof(id), "%016" PRIx64, store_folder_id(store));
	json_object_set_new(o, "folder_id", json_string(id));
	snprintf(id, sizeof(id), "%016" PRIx64, store_replica_id(store));
	json_object_set_new(o, "replica_id", json_string(id));
	json_object_set_new(o, "hash", json_string(hash_algorithm_name(store_algorithm(store))));
	add_index_json(f, o);
	add_rebuilt_json(f, o);
	json_object_set_new(o, "last_scan", json_integer((json_int_t)(f->last_scan_ns / CLOCK_NS_PER_S)));
	json_object_set_new(o, "scanning", json_boolean(f->errand && f->errand->type == ERRAND_SCAN));
	json_object_set_new(o, "replacing_by", json_string(tier_word(store_abilities(store))));
	if (f->watch) {
		json_object_set_new(o, "watched", json_integer((json_int_t)watch_count(f->watch)));
		json_object_set_new(o, "unwatched", json_integer((json_int_t)watch_unwatched(f->watch)));
	}
	json_object_set_new(o, "held", json_integer((json_int_t)(f->held + held_of_peers(f))));
	json_object_set_new(o, "local_differences", json_integer((json_int_t)local_differences(f)));
	json_object_set_new(o, "problems", json_integer((json_int_t)HASH_COUNT(f->problems)));
	json_object_set_new(o, "not_in_sync", folder_problems_json(f, 100));
	for (const struct folder_session *s = f->sessions; s; s = s->next)
		json_array_append_new(sessions, session_json(s));
	json_object_set_new(o, "sessions", sessions);
	return o;
}
