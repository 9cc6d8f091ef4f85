/*
 * syncd/commands.h — the commands of syncctl, one function each: arguments after the command's name, an exit code
 * (enum exit_code) back. They print to stdout what was asked for, and to stderr one line for what went wrong.
 */
#ifndef SYNCD_COMMANDS_H
#define SYNCD_COMMANDS_H

#include "syncd/folder.h"

int cmd_reconcile(int argc, char **argv);
int cmd_serve(int argc, char **argv);
int cmd_status(int argc, char **argv);
int cmd_scan(int argc, char **argv);
int cmd_flush(int argc, char **argv);
int cmd_purge(int argc, char **argv);
int cmd_confirm(int argc, char **argv);
int cmd_conflicts(int argc, char **argv);
int cmd_trash(int argc, char **argv);
int cmd_peer(int argc, char **argv);
int cmd_check_config(int argc, char **argv);

#define COMMAND_CONFIG "/etc/syncd/syncd.conf"

/* Begin a loop; 0, or the exit status: it said why not. */
int command_loop(uv_loop_t *loop);
/* What one-shot commands use for a folder that no configuration describes. */
void command_folder_options(struct folder_options *ret, uv_loop_t *loop, const char *path);
/*
 * folder_open. Another command that was ended a moment ago may still be at it: waits for COMMAND_LOCK_MS. STORE_LOCKED, with
 * *ret_holder (heap): the socket of the daemon that has the folder; NULL: none has.
 */
#define COMMAND_LOCK_MS 5000
int command_folder_open(struct folder **ret, const struct folder_options *options, char *why, size_t n, char **ret_holder);
/* Make an absolute path of what a person wrote: "~/", relative; symlinks are resolved where the path exists. */
int command_absolute(const char *text, char *ret, size_t n);
/* The path of a configured folder: as the configuration file says, where one is given, else as the daemon at the socket (NULL:
 * the default one), or else the installed configuration. -ENOENT. */
int command_folder_path(const char *name, const char *socket, const char *config_file, char *ret, size_t n);
/* The same of a word that may be a folder's name: it has no '/', and is not there as a file or directory. */
int command_named_folder(const char *word, const char *socket, const char *config_file, char *ret, size_t n);
/* "two-way", "push", "pull" → does this side send, take. -EINVAL. */
int command_mode(const char *text, bool *ret_sends, bool *ret_takes);
/* Ask the daemon; on failure prints why and returns an exit code, 0 with *ret_answer otherwise. */
int command_call(const char *socket, json_t *request, const int *fds, size_t n_fds, json_t **ret_answer);
/* -s SOCKET or the default. */
const char *command_socket(const char *given);

#endif
