/*
 * transfer/transport.h — a transport is a child process with a byte stream on its standard input and output.
 *
 *   TRANSPORT_LOCAL   SYNCCTL serve --here                            two folders on one machine
 *   TRANSPORT_SSH2    syncd-ssh … [user@]host -- COMMAND serve        libssh2 in a process of its own (default)
 *   TRANSPORT_SSH     ssh … [user@]host COMMAND serve                 the system's client: ProxyJump, hardware keys, Kerberos
 *
 * No shell is involved on this side, and the far side's command is a fixed string: what is to be opened travels in the
 * protocol. The child gets a socketpair as stdin and stdout; its stderr is a pipe whose text is kept (bounded) for messages.
 */
#ifndef TRANSFER_TRANSPORT_H
#define TRANSFER_TRANSPORT_H

#include <stddef.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

enum transport_kind { TRANSPORT_LOCAL, TRANSPORT_SSH2, TRANSPORT_SSH };

struct transport_options {
	enum transport_kind kind;
	const char *user;	    /* NULL: the current one */
	const char *host;
	uint16_t port;		    /* 0: 22, or what ssh's configuration says */
	const char *identity;	    /* key file; NULL: agent, then ~/.ssh/id_ed25519, id_ecdsa */
	const char *known_hosts;    /* NULL: ~/.ssh/known_hosts, /etc/ssh/ssh_known_hosts */
	const char *remote_command; /* the program on the far side; NULL: "syncctl" */
	const char *program_dir;    /* where our own programs are (for syncctl, syncd-ssh); NULL: beside /proc/self/exe, then $PATH */
	int64_t connect_timeout_ms; /* 0: 20 s */
};

/* Exit codes of syncd-ssh, so that its parent can say what went wrong; part of syncctl's own where they reach a person. */
enum transport_exit {
	TRANSPORT_EXIT_OK = 0,
	TRANSPORT_EXIT_USAGE = 64,
	TRANSPORT_EXIT_RESOLVE = 65,  /* no such host */
	TRANSPORT_EXIT_CONNECT = 66,  /* refused, unreachable, timed out */
	TRANSPORT_EXIT_HOST_KEY = 67, /* unknown or changed host key */
	TRANSPORT_EXIT_AUTH = 68,     /* no key was accepted */
	TRANSPORT_EXIT_PROTOCOL = 69, /* SSH itself failed */
	TRANSPORT_EXIT_COMMAND = 70,  /* the far side's command could not be run (127, 126) or ended with an error */
};

struct transport;

/* Starts the child. Returns at once; connecting goes on in it. -ENOENT: the program was not found. */
int transport_start(struct transport **ret, const struct transport_options *options);
/* The stream; non-blocking, owned by the transport until transport_take_fd. */
int transport_fd(const struct transport *t);
int transport_take_fd(struct transport *t);
int transport_stderr(const struct transport *t); /* non-blocking; read it into transport_note */
pid_t transport_pid(const struct transport *t);
/* Keep what the child said on stderr (bounded to the last 2 KiB; control bytes escaped when shown). */
void transport_note(struct transport *t, const char *bytes, size_t n);
/* Has the child ended? Does not wait. TRANSPORT_RUNNING; 0 once, with its wait status. */
enum transport_outcome { TRANSPORT_RUNNING = 1 };
int transport_reap(struct transport *t, int *ret_status);
/* After the child ended with a wait status: what to tell a person (one line, from its stderr and status), and a
 * TRANSPORT_EXIT_… code (0 when it ended well). */
const char *transport_explain(struct transport *t, int wait_status, int *ret_code);
/* Ask the child to end, or (force) kill it. Does not wait: see transport_reap. */
void transport_end(struct transport *t, bool force);
/* Kills the child if it still runs, reaps it (which takes two seconds where it does not end by itself), closes everything. */
void transport_free(struct transport *t);

#endif
