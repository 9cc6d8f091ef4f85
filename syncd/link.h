/*
 * syncd/link.h — drive one session on a libuv loop: bytes between a stream and the session, its jobs on worker threads,
 * its clock. The session itself does no input or output (transfer/session.h).
 */
#ifndef SYNCD_LINK_H
#define SYNCD_LINK_H

#include <uv.h>

#include "base/bucket.h"
#include "transfer/session.h"

struct link;

/* Bytes a second of the stream, as we send and receive them: what SSH adds is not counted. Written is what was earned. Read is what
 * was earned, too, and so little is asked for at a time that it is not on its way for long before. */
struct link_limits {
	struct bucket up, down;
};

/* Rates of its own (0: none) below others (NULL: none). */
void link_limits_init(struct link_limits *l, uint64_t up, uint64_t down, struct link_limits *above);

struct link_options {
	uv_loop_t *loop;
	struct session_options session; /* host.data is the caller's; under a limit it is not `plain` */
	int fd_in, fd_out;		/* owned from success on; may be the same descriptor */
	struct link_limits *limits;	/* not owned; shared with others on the same loop; NULL: none */
	/* The session is over, all is flushed that could be, no job runs. The link may be freed from here on. */
	void (*ended)(struct link *l, void *data);
	void *data;
};

int link_new(struct link **ret, const struct link_options *options);
struct session *link_session(const struct link *l);

/* Bytes a second: of the last seconds, and what limits them (0: nothing does). */
struct link_rates {
	uint64_t up, down;
	uint64_t limit_up, limit_down;
};
void link_rates(const struct link *l, struct link_rates *ret);

/* After any session_… call from outside: start its jobs and write its output. */
void link_kick(struct link *l);
/* End now, without waiting for the peer; ended() follows when running jobs are done. */
void link_abort(struct link *l);
void link_free(struct link *l); /* only after ended() */

#endif
