/*
 * syncd/link.h — drive one session on a libuv loop: bytes between a stream and the session, its jobs on worker threads,
 * its clock. The session itself does no input or output (transfer/session.h).
 */
#ifndef SYNCD_LINK_H
#define SYNCD_LINK_H

#include <uv.h>

#include "transfer/session.h"

struct link;

struct link_options {
	uv_loop_t *loop;
	struct session_options session; /* host.data is the caller's */
	int fd_in, fd_out;		/* owned from success on; may be the same descriptor */
	/* The session is over, all is flushed that could be, no job runs. The link may be freed from here on. */
	void (*ended)(struct link *l, void *data);
	void *data;
};

int link_new(struct link **ret, const struct link_options *options);
struct session *link_session(const struct link *l);
/* After any session_… call from outside: start its jobs and write its output. */
void link_kick(struct link *l);
/* End now, without waiting for the peer; ended() follows when running jobs are done. */
void link_abort(struct link *l);
void link_free(struct link *l); /* only after ended() */

#endif
