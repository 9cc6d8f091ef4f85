/* syncd/daemon_internal.h — what daemon.c (running) and daemon_control.c (answering) share. Nobody else includes it. */
#ifndef SYNCD_DAEMON_INTERNAL_H
#define SYNCD_DAEMON_INTERNAL_H

#include <time.h>

#include "syncd/config.h"
#include "syncd/control.h"
#include "syncd/endpoint.h"
#include "syncd/folder.h"
#include "syncd/schedule.h"
#include "syncd/turns.h"
#include "transfer/transport.h"

struct place;
struct serving;

#define TURNS_LOOK_MS 250 /* whether who waits for his turn may begin */

struct peer {
	struct place *place;
	const struct config_peer *config;
	struct endpoint endpoint;
	struct schedule schedule;
	struct transport *transport;
	uv_poll_t err_poll;
	bool polling;		/* err_poll is open */
	char said[512];		/* a line of its stderr that is not over */
	size_t said_n;
	unsigned said_lines;	/* that were told since: */
	int64_t said_since_ns;
	uv_timer_t timer;	/* next attempt, next root check, or the child's end */
	struct folder_session *session;
	struct link_limits limits; /* below the folder's */
	struct turn turn;
	bool gave_way;		/* its session was ended for others: it waits for its turn again */
	bool reaping;
	int reap_tries;
	bool connection_lost, ended_in_order;
	char ended_text[1024];
	char error[1024];	/* why it is not connected; "" */
	int64_t error_since, last_round; /* wall clock, seconds */
	bool in_sync;
	bool flushing;	      /* a flush waits for it: */
	uint32_t flush_round; /* a round that begins with what there was to be flushed */
	uint64_t local_differences; /* mode pull: after the last round */
};

/* A flush that waits: until the folder has settled, then a round with each connected peer. */
struct flush {
	struct control_connection *connection;
	struct place *place;
};

struct place {
	struct daemon *daemon;
	const struct config_folder *config;
	uint64_t *prefer;
	struct folder *folder; /* NULL: not open, for a reason */
	char reason[1024];
	int64_t reason_since;
	struct link_limits limits; /* of all its sessions; below the daemon's */
	uv_timer_t reopen;
	struct peer *peers;
	size_t n_peers;
	struct flush *flush; /* one at a time */
};

struct daemon {
	const struct config *config;
	uv_loop_t *loop;
	const char *socket, *state_dir, *program_dir;
	struct control_server *control;
	struct link_limits limits; /* of all sessions */
	struct pace_limits *pace;  /* of all whole scans; NULL: none */
	struct turns turns;	   /* each session has one */
	uv_timer_t turns_timer;
	struct serving *servings;  /* streams that clients brought */
	uv_signal_t sigterm, sigint;
	struct place *places;
	size_t n_places;
	bool stopping, stopped;
};

void peer_on_timer(uv_timer_t *timer);
void place_on_reopen(uv_timer_t *timer);
bool place_reverts(const struct place *p); /* does it undo what is changed here? */
void daemon_check_stopped(struct daemon *d);
bool daemon_gives_way(struct daemon *d, struct turn *turn, const struct folder_session *session); /* it is to be ended from true on */
/* daemon_control.c */
void daemon_handle(struct control_connection *c, struct control_request *request, void *data);
void daemon_serve_waiting(struct daemon *d); /* who brought a stream, and waits for his turn; who gives way */
void daemon_flush_round(struct peer *p); /* a round of its session is over */
void daemon_flush_lost(struct peer *p);	 /* its session is over */
void daemon_flush_abandon(struct place *p); /* its folder was closed */

#endif
