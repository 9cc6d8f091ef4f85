/*
 * syncd/daemon.h — the daemon: its configured folders, a session with each peer, the control socket, on one loop.
 *
 * Each folder is on its own: one that cannot be opened (not mounted, locked, damaged) is halted with its reason and tried again;
 * the others go on. That a configured folder has had an index is remembered outside of it: a missing one is then never
 * taken for a new folder.
 */
#ifndef SYNCD_DAEMON_H
#define SYNCD_DAEMON_H

#include "syncd/config.h"

/* Runs until SIGTERM or SIGINT. Returns an exit code (enum exit_code). state_dir: where what is remembered outside of the
 * folders is kept; made if missing. program_dir: see transport_options; may be NULL. */
int daemon_run(const struct config *config, const char *socket, const char *state_dir, const char *program_dir);

#endif
