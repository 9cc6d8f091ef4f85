/*
 * syncd/report.h — answers about a replica, as JSON: the same whether the daemon gives them or a command that opened the
 * replica itself. On failure the answer is an error (syncd/control.h).
 */
#ifndef SYNCD_REPORT_H
#define SYNCD_REPORT_H

#include <jansson.h>

#include "syncd/folder.h"
#include "tombstones/replica.h"

/* {"conflicts": [{"path", "original", "size", "mtime"}]}: live conflict copies. */
json_t *report_conflicts(struct replica *r);
/* {"trash": [{"path", "bucket", "size", "kind"}]} */
json_t *report_trash(struct store *s);
/* {"restored": path, "bucket"}; bucket may be NULL: the newest. */
json_t *report_restore(struct store *s, const char *path, const char *bucket);
/* {"purged", "freed", "left"}: tombstones, bytes of trash, tombstones that are kept. */
json_t *report_upkeep(const char *name, const struct folder_upkeep *u);
/* [{"replica", "name", "seen", "retired", "behind"}]: who takes part, but for ourselves; seen in seconds, behind: it does not
 * know all that this replica knows, as far as it told. */
json_t *report_members(struct index_txn *t, const struct knowledge *k, const struct replica *r);
/* {"retired": name}: member is a name or a replica id (16 hex digits). */
json_t *report_retire(struct replica *r, const char *member);
/* Names are bytes; JSON is text: what is not UTF-8 is shown escaped. */
json_t *report_name(const char *bytes);

#endif
