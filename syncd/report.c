/* syncd/report.c — see syncd/report.h. */
#include "syncd/report.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/log.h"
#include "syncd/control.h"
#include "syncd/exit_codes.h"
#include "tombstones/conflict.h"
#include "tombstones/trash.h"

#define CONFLICTS_BATCH 1000 /* rows looked at in one read transaction */

json_t *report_name(const char *bytes)
{
	char text[4 * FILE_PATH_BYTES_MAX + 16];
	json_t *name = json_string(bytes);

	return name ? name : json_string(text_quote(text, sizeof(text), bytes));
}

static int add_conflict(json_t *list, const char *path, const struct row *row)
{
	char *original = conflict_original(path);

	if (!original)
		return -ENOMEM;
	json_array_append_new(list, json_pack("{s:o, s:o, s:I, s:I}", "path", report_name(path), "original", report_name(original), "size",
					    (json_int_t)row->record.content.size, "mtime",
					    (json_int_t)(row->record.mtime_ns / CLOCK_NS_PER_S)));
	free(original);
	return 0;
}

/* Look at some rows from *from on; *from becomes where to go on. INDEX_ABSENT at the end. */
static int conflicts_batch(struct replica *r, char **from, json_t *list)
{
	struct index_txn *t = NULL;
	struct index_cursor *c = NULL;
	int result = index_begin_read(replica_index(r), &t);

	if (result == 0)
		result = index_cursor_open(t, &c);
	if (result == 0)
		result = index_cursor_seek(c, *from);
	for (int i = 0; i < CONFLICTS_BATCH && result == 0; i++) {
		struct row row = {0};
		char *path = NULL;

		result = index_cursor_get(c, &path, &row);
		if (result == 0 && row_live(&row) && conflict_is_copy(path))
			result = add_conflict(list, path, &row);
		row_deinit(&row);
		free(path);
		if (result == 0)
			result = index_cursor_next(c);
	}
	if (result == 0) {
		free(*from);
		*from = NULL;
		result = index_cursor_get(c, from, NULL);
	}
	index_cursor_close(c);
	index_abort(t);
	return result;
}

json_t *report_conflicts(struct replica *r)
{
	json_t *list = json_array();
	char *from = strdup("");
	int result = from ? 0 : -ENOMEM;

	while (result == 0)
		result = conflicts_batch(r, &from, list);
	free(from);
	if (result < 0) {
		json_decref(list);
		return control_error(EXIT_FAILED, "cannot read the index: %s", file_error_text(result));
	}
	return json_pack("{s:o}", "conflicts", list);
}

static int add_trash(const struct trash_entry *e, void *data)
{
	static const char *const kinds[] = {"file", "directory", "symlink", "other"};

	json_array_append_new(data, json_pack("{s:o, s:s, s:I, s:s}", "path", report_name(e->path), "bucket", e->bucket, "size",
					    (json_int_t)e->stat.size, "kind", kinds[e->stat.kind]));
	return 0;
}

json_t *report_trash(struct store *s)
{
	json_t *list = json_array();
	int r = trash_list(s, add_trash, list);

	if (r < 0) {
		json_decref(list);
		return control_error(EXIT_FAILED, "cannot read the trash: %s", file_error_text(r));
	}
	return json_pack("{s:o}", "trash", list);
}

json_t *report_restore(struct store *s, const char *path, const char *bucket)
{
	char *from = NULL;
	json_t *answer;
	int r;

	if (!path_valid(path))
		return control_error(EXIT_USAGE, "%s is no path below the folder's root", quoted(path));
	r = trash_restore(s, path, bucket, &from);
	if (r == FILE_EXISTS)
		return control_error(EXIT_PARTIAL, "%s is there: move it away first, nothing is overwritten", quoted(path));
	if (r == FILE_VANISHED)
		return control_error(EXIT_NO_FOLDER, "%s is not in the trash: syncctl trash list shows what is", quoted(path));
	if (r != 0)
		return control_error(EXIT_FAILED, "cannot restore %s: %s", quoted(path), file_error_text(r));
	answer = json_pack("{s:o, s:s}", "restored", report_name(path), "bucket", from);
	free(from);
	return answer;
}

json_t *report_upkeep(const char *name, const struct folder_upkeep *u)
{
	if (u->error == -ECANCELED)
		return control_error(EXIT_HALTED, "%s is halted: see syncctl status", name);
	if (u->error == -EBUSY)
		return control_error(EXIT_LOCKED, "%s: another purge is under way", name);
	if (u->error == -ENOENT)
		return control_error(EXIT_NO_FOLDER, "%s has not met a peer yet: there is nothing to purge", name);
	if (u->error)
		return control_error(EXIT_FAILED, "%s: cannot purge all: %s", name, file_error_text(u->error));
	return json_pack("{s:I, s:I, s:I}", "purged", (json_int_t)u->purged, "freed", (json_int_t)u->freed, "left",
		(json_int_t)u->left);
}

json_t *report_members(struct index_txn *t, const struct knowledge *k, const struct replica *r)
{
	json_t *list = json_array();
	struct members members = {0};
	char id[20];

	if (replica_members_read(t, &members) == 0) {
		for (size_t i = 0; i < members.n; i++) {
			const struct member *m = &members.v[i];

			snprintf(id, sizeof(id), "%016" PRIx64, m->replica);
			json_array_append_new(list, json_pack("{s:s, s:o, s:I, s:b, s:b}", "replica", id, "name",
							    report_name(m->name ? m->name : ""), "seen",
							    (json_int_t)(m->seen_ns / CLOCK_NS_PER_S), "retired", m->retired, "behind",
							    m->excepted || !version_vector_leq(&k->k, &m->k, replica_lineage(r))));
		}
	}
	members_deinit(&members);
	return list;
}

static struct member *member_named(struct members *m, const char *name)
{
	char *end;
	uint64_t id = strtoull(name, &end, 16);

	if (strlen(name) == 16 && !*end && members_find(m, id))
		return members_find(m, id);
	for (size_t i = 0; i < m->n; i++)
		if (m->v[i].name && strcmp(m->v[i].name, name) == 0)
			return &m->v[i];
	return NULL;
}

json_t *report_retire(struct replica *r, const char *name)
{
	struct replica_txn t;
	struct members members = {0};
	struct member *m = NULL;
	int result;

	replica_lock(r);
	result = replica_begin(r, &t);
	if (result == 0) {
		result = replica_members_read(t.index, &members);
		m = result == 0 ? member_named(&members, name) : NULL;
		if (m) {
			m->retired = true;
			result = replica_members_write(&t, &members);
		}
		if (result == 0)
			result = replica_commit(&t);
		else
			replica_abort(&t);
	}
	replica_unlock(r);
	members_deinit(&members);
	if (result < 0)
		return control_error(EXIT_FAILED, "cannot retire %s: %s", quoted(name), file_error_text(result));
	return m ? json_pack("{s:s}", "retired", name)
		 : control_error(EXIT_USAGE, "no member is called %s: syncctl status --json lists them", quoted(name));
}
