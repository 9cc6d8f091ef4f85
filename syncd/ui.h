/* syncd/ui.h — how things are shown to people, and what programs exit with. */
#ifndef SYNCD_UI_H
#define SYNCD_UI_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "transfer/session.h"
#include "transfer/transport.h"

/* "1.2 GiB"; ret has 16 bytes. Returns ret. */
char *ui_bytes(uint64_t bytes, char *ret);
/* "1 path", "2 paths": n of a thing of at most 20 bytes; ret has 48 bytes. Returns ret. */
char *ui_count(uint64_t n, const char *thing, char *ret);
/* "3 min", "2 d"; ret has 24 bytes. */
char *ui_age(int64_t seconds, char *ret);
/* The exit code of a session that ended (enum exit_code). */
int ui_exit_of_session(const struct session_status *s);
int ui_exit_of_transport(int transport_exit);
int ui_exit_of_store(int store_outcome_or_errno);
/* Is this item of "not_in_sync" a deletion that is held? */
bool ui_is_held(const json_t *problem);
/* The status of all folders, for people, to stdout. */
void ui_print_status(const json_t *status);

#endif
