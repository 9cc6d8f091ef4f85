/*
 * tests/sim/row_fault.h — an index and its disk, when all is quiet: whether a row says what is there.
 */
#ifndef TESTS_SIM_ROW_FAULT_H
#define TESTS_SIM_ROW_FAULT_H

#include <unistd.h>

#include "base/file.h"
#include "merkle/index.h"
#include "merkle/scan.h"
#include "merkle/store.h"

/* What is wrong with it, to be said behind the path; NULL: nothing. Mtimes are compared in units of mtime_ns; 0: neither these
 * nor modes and owners. */
static inline const char *row_fault(struct store *store, struct index_txn *t, const char *path, const struct row *row,
	int64_t mtime_ns)
{
	struct record state = {0};
	struct stamp stamp = {0};
	struct chunk_tree_node *nodes = NULL;
	size_t n_nodes = 0;
	const char *name, *fault = NULL;
	int dir = -1;

	if (row->place != ROW_ON_DISK && row->place != ROW_IMPLIED)
		return row_live(row) ? "is live, and not on disk" : NULL;
	if (file_open_parent(store_root(store), path, &dir, &name) ||
			scan_look(store, dir, name, &state, &stamp, &nodes, &n_nodes))
		fault = "can't be looked at";
	else if (row->place == ROW_IMPLIED)
		fault = state.kind != RECORD_DIRECTORY ? "is implied, and no directory"
			: index_any_live_below(t, path) != 1 ? "is implied by nothing" : NULL;
	else if (!record_same_state(&state, &row->record))
		fault = "is other content than its record says";
	else if (mtime_ns && !record_same_attributes(&state, &row->record))
		fault = "has another mode or owner than its record says";
	else if (mtime_ns && state.kind != RECORD_DIRECTORY && state.mtime_ns / mtime_ns != row->record.mtime_ns / mtime_ns)
		fault = "has another mtime than its record says";
	else if (state.kind == RECORD_DIRECTORY ? stamp.ino != row->stamp.ino : !stamp_equal(&stamp, &row->stamp))
		fault = "is not what was stamped";
	if (dir >= 0)
		close(dir);
	record_deinit(&state);
	scan_nodes_free(nodes, n_nodes);
	return fault;
}

#endif
