/*
 * syncd/control.h — the daemon's local socket: one request, one answer, a JSON object a line each; descriptors may come with
 * the request (SCM_RIGHTS). Who asks is known by SO_PEERCRED. The daemon opens no path and starts nothing on a client's word:
 * requests name folders that it has, and bring the streams that they want served.
 */
#ifndef SYNCD_CONTROL_H
#define SYNCD_CONTROL_H

#include <jansson.h>
#include <sys/types.h>
#include <uv.h>

#define CONTROL_LINE_BYTES_MAX (256 * 1024)
#define CONTROL_FDS_MAX 2

/* The default socket: $SYNCD_SOCKET, /run/syncd.sock for root, else $XDG_RUNTIME_DIR/syncd.sock (or /tmp/syncd-UID/syncd.sock).
 * Writes at most n bytes. */
void control_default_socket(char *ret, size_t n);

/* --- server --- */

struct control_server;
struct control_request {
	json_t *json;	/* borrowed: valid during the handler */
	int fds[CONTROL_FDS_MAX]; /* owned by the handler once it sets them to -1 */
	size_t n_fds;
	uid_t uid;
	gid_t gid;
	pid_t pid;
};
struct control_connection;
/* Answer at once or later with control_answer(); each request exactly once. */
typedef void control_handler(struct control_connection *c, struct control_request *request, void *data);

int control_server_new(struct control_server **ret, uv_loop_t *loop, const char *socket, control_handler *handler, void *data);
/* Stops listening, removes the socket, drops connections; freed when the loop has closed its handles. */
void control_server_close(struct control_server *s);
/* Takes the answer over. The connection closes when it is written. */
void control_answer(struct control_connection *c, json_t *answer);
/* {"error": text, "code": exit code} */
json_t *control_error(int exit_code, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* Told when the client goes away, or the server closes, before the answer: gone(data). The connection is then freed and must
 * not be answered any more. */
void control_on_gone(struct control_connection *c, void (*gone)(void *data), void *data);

/* --- client: blocks until the answer --- */

/* -ENOENT, -ECONNREFUSED: no daemon there. *ret_answer is owned by the caller. */
int control_call(const char *socket, json_t *request, const int *fds, size_t n_fds, json_t **ret_answer);

#endif
