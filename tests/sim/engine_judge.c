/* tests/sim/engine_judge.c — replicas at the end: alike, tidy, and each what its index says; see tests/sim/engine.h. */
#include "tests/sim/engine.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/sim/row_fault.h"

#define MTIME_NS (2 * CLOCK_NS_PER_S) /* all disks can store that */

static void check(const struct site *s, const char *what, int r)
{
	if (r < 0)
		wrong(s->engine, WRONG_OTHER, "%c: %s: %s", s->name, what, file_error_text(r));
}

static struct index_txn *begin(const struct site *s)
{
	struct index_txn *t = NULL;

	sim_host_enter(s->host);
	check(s, "index_begin_read", index_begin_read(replica_index(s->replica), &t));
	return t;
}

static void root_of(const struct site *s, struct hash *ret)
{
	struct index_txn *t = begin(s);

	check(s, "tree_root", tree_root(t, TREE_LIVE, ret));
	index_abort(t);
}

static size_t exceptions_of(const struct site *s, bool print)
{
	struct index_txn *t = begin(s);
	struct knowledge k = {0};
	size_t n;

	check(s, "replica_knowledge_read", replica_knowledge_read(t, &k));
	index_abort(t);
	n = k.n;
	for (size_t i = 0; i < n && print; i++)
		fprintf(stderr, "%c does not know all of %s\n", s->name, k.exceptions[i].path);
	knowledge_deinit(&k);
	return n;
}

bool judge_alike(struct engine *e)
{
	bool attributes = true;
	struct hash first, root;
	uint64_t tree;

	for (unsigned i = 0; i < e->n_sites; i++)
		attributes = attributes && !e->sites[i].denied;
	tree = oracle_tree(&e->sites[0], attributes);
	root_of(&e->sites[0], &first);
	for (unsigned i = 0; i < e->n_sites; i++) {
		if (i && oracle_tree(&e->sites[i], attributes) != tree)
			return false;
		root_of(&e->sites[i], &root);
		if (!hash_equal(&first, &root) || (!e->cloned && !e->restored && exceptions_of(&e->sites[i], false)))
			return false;
	}
	return true;
}

void judge_print(struct engine *e)
{
	for (unsigned i = 0; i < e->n_sites; i++) {
		struct hash root;

		oracle_print_tree(&e->sites[i]);
		root_of(&e->sites[i], &root);
		fprintf(stderr, "root %02x%02x\n", root.bytes[0], root.bytes[1]);
		exceptions_of(&e->sites[i], true);
	}
}

/* --- an index and its disk --- */

static void judge_rows(const struct site *s)
{
	struct index_txn *t = begin(s);
	struct index_cursor *c = NULL;
	int r;

	check(s, "index_cursor_open", index_cursor_open(t, &c));
	for (r = index_cursor_seek(c, ""); r == 0; r = index_cursor_next(c)) {
		struct row row = {0};
		const char *fault;
		char *path = NULL;

		check(s, "index_cursor_get", index_cursor_get(c, &path, &row));
		fault = row_fault(replica_store(s->replica), t, path, &row, s->denied ? 0 : MTIME_NS);
		if (fault)
			wrong(s->engine, WRONG_DIVERGED, "%c: %s %s", s->name, path, fault);
		free(path);
		row_deinit(&row);
	}
	check(s, "index_cursor_next", r);
	index_cursor_close(c);
	index_abort(t);
}

static int count_intent(uint64_t batch, uint32_t number, const void *p, size_t n, void *data)
{
	(void)batch;
	(void)number;
	(void)p;
	(void)n;
	++*(size_t *)data;
	return 0;
}

static int in_staging(const char *path, const struct file_stat *st, void *data)
{
	const struct site *s = data;

	(void)st;
	wrong(s->engine, WRONG_EVENT, "%c: %s is left", s->name, path);
}

/* No intent, nothing in staging. */
static void judge_tidy(struct site *s)
{
	struct index_txn *t = begin(s);
	size_t n = 0;

	check(s, "index_intents", index_intents(t, count_intent, &n));
	index_abort(t);
	if (n)
		wrong(s->engine, WRONG_EVENT, "%c: %zu intents are left", s->name, n);
	(void)sim_user_walk(s->disk, ".syncd/staging", in_staging, s);
}

void judge_end(struct engine *e)
{
	oracle_judge(e);
	for (unsigned i = 0; i < e->n_sites; i++) {
		struct site *s = &e->sites[i];

		s->acted = false;
		site_scan(s); /* an event would be wrong */
		judge_rows(s);
		judge_tidy(s);
	}
}
