/*
 * syncd/report.h — answers about a replica, as JSON: the same whether the daemon gives them or a command that opened the
 * replica itself. On failure the answer is an error (syncd/control.h).
 */
#ifndef SYNCD_REPORT_H
#define SYNCD_REPORT_H

#include <jansson.h>

#include "tombstones/replica.h"

/* {"conflicts": [{"path", "original", "size", "mtime"}]}: live conflict copies. */
json_t *report_conflicts(struct replica *r);
/* {"trash": [{"path", "bucket", "size", "kind"}]} */
json_t *report_trash(struct store *s);
/* {"restored": path, "bucket"}; bucket may be NULL: the newest. */
json_t *report_restore(struct store *s, const char *path, const char *bucket);
/* {"retired": name}: member is a name or a replica id (16 hex digits). */
json_t *report_retire(struct replica *r, const char *member);
/* Names are bytes; JSON is text: what is not UTF-8 is shown escaped. */
json_t *report_name(const char *bytes);

#endif
