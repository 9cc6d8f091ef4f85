/*
 * transfer/session_internal.h — what the session's parts share: session.c (states, dispatch, jobs), greet.c (until
 * both have one folder id), round.c (HELLO to DONE), learn.c (what a round leaves in the index), push.c (what changed since the
 * peer had all), compare*.c (walking, rows),
 * fetch*.c (offers to applied batches), serve.c (content for the peer). Nobody else includes it.
 */
#ifndef TRANSFER_SESSION_INTERNAL_H
#define TRANSFER_SESSION_INTERNAL_H

#include "transfer/frame.h"
#include "transfer/session.h"
#include "transfer/stage.h"

#define ASKS_MAX 32 /* ranges asked for and not answered */
#define MATCHES_MAX SESSION_PAIRS_MAX
#define ROUND_BULK_BYTES (64u << 20) /* more content than that is not left in memory */
#define SERVE_LEVELS 4	    /* of compression */
#define SERVE_LEVEL_FIRST 1

/* A vector shared by the offers of one message. */
struct shared_vector {
	unsigned refs;
	struct version_vector v;
};

/* The tree walk of one content, level by level. */
struct node_walk {
	uint8_t level;			    /* of the entries below */
	struct chunk_tree_entry *entries;   /* of this level, in order; owned */
	size_t n;
	struct chunk_tree_entry **children; /* of each entry once its node is here; owned */
	size_t *n_children;
	size_t asked;			    /* entries before it were looked up or asked for */
	size_t unresolved;		    /* of `entries` */
	size_t below;			    /* children of those that are resolved */
};

/* One path that differs: what the peer has, and what became of it here. */
struct offer {
	char *path;
	bool absent; /* the peer has nothing there */
	struct record theirs;
	struct shared_vector *k; /* the peer's K of this path */
	bool deferred_once;	 /* comes from the deferred list: do not defer again */
	uint8_t *bytes;		 /* all of its content, if it came with it; owned */
	size_t n_bytes;
	/* planning */
	enum decide_action action;
	bool deletes; /* would remove something live here */
	bool defer;   /* is to wait until all else of the round is dealt with */
	bool lands;   /* as something that is no directory */
	bool under;   /* lands below what is no directory here: after the other deferred ones */
	bool differs; /* is another thing here than at the peer, and will be */
	bool copied;  /* its content was here before the round, at a path that may be about to be deleted */
	bool moved;   /* (deletes) its content is to be moved to another path of the round */
	struct offer *source; /* (copied) such a one; only while they are flushed */
	char *move_from; /* its path; it comes next in the batch; owned */
	bool fetch_tree;
	int error;
	struct stage *stage;
	bool staged; /* content complete and finished in staging */
	/* fetching */
	struct node_walk *walk;
	uint32_t chunks; /* it has no more */
	bool counted;	 /* `chunks` are, in chunks_held */
	size_t next_missing; /* chunks before it were asked for */
	size_t unwritten;    /* missing chunks not yet written */
	unsigned poor;	     /* answers to names in a row that told hardly anything with them */
	unsigned refs;	     /* outstanding requests and ops */
	bool open;	     /* still being fetched (counts in the batch's pending) */
	bool failed;
	struct batch *batch;
	struct offer *next_fetch; /* list of offers with something to ask for */
	/* result */
	enum apply_result result;
	bool conflict, privileges_cleared;
};

enum batch_state { BATCH_FILLING, BATCH_PLANNING, BATCH_FETCHING, BATCH_APPLYING };

struct batch {
	enum batch_state state;
	struct offer **v;
	size_t n, cap;
	size_t pending;	  /* offers still being fetched */
	bool bulk;	  /* much came in this round before it */
	struct batch *next;
};

/* What a request named: pieces of the old version, or of nodes of its tree. */
struct named_pieces {
	unsigned refs; /* the request, and ops */
	uint8_t bits;
	size_t n, max;
	struct piece v[];
};

/* A request for content: sent, or (in an op) waiting for its names. */
struct fetch_request {
	uint32_t id;
	struct offer *offer;
	size_t first, n; /* its missing chunks: stage_missing()[first … first + n) */
	struct named_pieces *pieces; /* or NULL */
	size_t done;	 /* ranges received whole */
	uint64_t bytes;	 /* asked for */
	uint8_t *chunk;	 /* the range being received; owned */
	uint32_t at;	 /* bytes of it */
	struct fetch_request *next;
};

struct nodes_request {
	uint32_t id;
	struct offer *offer;
	size_t n;
	size_t *slots; /* positions in the walk; owned */
	struct named_pieces *pieces; /* of `old`; or NULL */
	struct buf old; /* nodes of the old version, one after the other */
	struct nodes_request *next;
};

/* Something to do to a stage, on the plan lane. */
struct stage_op {
	struct offer *offer;
	struct chunk_tree_entry *entries; /* CHUNKS: owned */
	size_t n_entries;
	struct fetch_request *request; /* NAMES: to be sent then; owned */
	struct named_pieces *pieces;   /* REBUILD: `bytes` is PIECES; a reference */
	size_t missing;		       /* WRITE, REBUILD: number of stage_missing() */
	uint8_t *bytes;		       /* owned */
	size_t n;
	int result;
	struct stage_op *next;
};

/* A content that the peer asked for, and in which round last. */
#define SERVED_MAX 64
struct served {
	uint64_t name; /* hash of path and content; 0: none */
	uint64_t round;
};

/* The peer's request, waiting to be read. */
struct serve_request {
	struct message_request request;
	struct serve_request *next;
};

enum job_type { JOB_JOIN, JOB_RENEW, JOB_LINEAGE, JOB_ANEW, JOB_LEARN, JOB_PLAN, JOB_STAGE, JOB_APPLY, JOB_READ, JOB_PUSH };

struct session_job {
	enum job_type type;
	enum session_lane lane;
	struct session *session;
	struct session_job *next;
	int error;
	/* JOIN */
	struct store_folder was, now;
	/* LINEAGE, PUSH */
	union message lineage;
	bool ahead; /* it came before the peer's first HELLO */
	/* ANEW */
	uint64_t records;
	/* LEARN */
	struct knowledge peer_knowledge;
	uint64_t forgotten; /* replica_forgotten before the round */
	bool stale;	    /* it is another number now */
	bool learn; /* join it (else only the members' table is brought up to date) */
	char **skipped;
	size_t n_skipped;
	bool full;
	/* PLAN, APPLY */
	struct batch *batch;
	/* STAGE */
	struct stage_op *ops;
	/* READ, PUSH */
	struct serve_request *requests; /* owned */
	bool joins;			/* READ: small answers are told together */
	struct buf frames;		/* the answers; the PUSH */
	uint64_t content;		/* bytes of content in them */
	/* PUSH */
	union message push;
	uint64_t seq; /* that it is of */
	size_t n_lineage; /* entries in its digest */
};

/* A range of the walk, from ASK to the last of its ROWS. */
enum ask_state { ASK_UNUSED, ASK_OUT, ASK_ANSWERED, ASK_PAIRED };

struct ask {
	enum ask_state state;
	uint32_t id;
	struct diff_range range;
	struct message_entries entries; /* ANSWERED: they wait until fewer rows are out; owned */
	size_t rows;			/* PAIRED: that ROWS may tell */
};

#define ASK_SLOTS (ASKS_MAX + SESSION_PAIRS_MAX) /* asked for only as long as fewer PAIRs than that are out */

/* A MATCH that was sent. */
struct match_group {
	struct path_key from;
	struct match_digest digest; /* zero: it was not told */
};

struct match_asked {
	uint32_t id;
	struct diff_range range;   /* as diff_next gave it */
	struct diff_range covered; /* its beginning, or all of it */
	struct match_group *groups; /* owned; NULL: not in use */
	size_t n;
};

/* A PAIR, ROWS, MATCH or MATCHED that waits for lineage or for room in the backlog; an ASK that came while what was pushed is
 * being dealt with. */
struct pending_rows {
	uint8_t type;
	union message m;
	struct pending_rows *next;
};

/* Of a PUSH that came. */
enum push_state { PUSH_NONE, PUSH_CAME, PUSH_TAKING, PUSH_FLUSHED /* deletions, too */ };

struct session {
	struct session_options options;
	struct replica *replica; /* NULL until attached */
	const struct ignore *ignore;
	enum session_state state;

	struct frame_reader *reader;
	struct frame_writer *writer;
	struct frame_writer *read_writer; /* the read lane's */
	struct buf out;
	size_t out_at; /* bytes of `out` that were written: taken out at times only, as that moves the rest */
	int64_t now_ns, last_in_ns, last_out_ns;
	uint64_t bytes_in, bytes_out, content_in, content_out;

	/* handshake */
	bool opened, greet_sent, greeted, ready, finishing, bye_sent;
	uint64_t nonce, peer_nonce, seed;
	uint64_t own_replica, peer_replica;	 /* as greeted */
	struct store_folder folder, peer_folder; /* as greeted; ours goes on with what this session changes */
	int64_t opening_ns; /* OPENING counts against the peer from then on */
	unsigned greetings; /* of the peer */
	bool kin;	  /* see transfer/meeting.h */
	bool renewing;	  /* a clone: one of us takes a new id */
	bool joining;	  /* JOB_JOIN is under way */
	bool recording_anew; /* JOB_ANEW is under way */
	bool rescan;	  /* it changed the hash */
	bool peer_sends, peer_takes;
	bool policy_differs, ignore_differs;
	char *peer_name, *peer_version;

	/* lineage */
	size_t lineage_sent;	  /* entries of ours that the peer was sent or has */
	size_t lineage_shown;	  /* entries in the digest of HELLO */
	bool lineage_wanted;	  /* the digests differed: the peer's last LINEAGE is awaited */
	bool lineage_last;	  /* it came (maybe before we knew that it is wanted) */
	unsigned lineage_jobs;	  /* queued */

	/* round */
	uint32_t round;
	bool hello_sent, hello_received, compared, equal, walked, walk_sent, walk_received;
	bool deferred_flushed, learning, learned, done_sent, done_received;
	bool taking; /* our replica counts this round */
	bool local_changed, progress;
	uint64_t content_before; /* content_in as it began */
	uint32_t confirmed_round; /* deletions are confirmed up to this round's end; 0: none */
	struct hash root, peer_root;	   /* of HELLO */
	struct hash done_root, peer_done_root;
	struct hash last_root, last_peer_root; /* at the end of the round before */
	uint64_t forgotten; /* replica_forgotten before HELLO */
	uint64_t lineage_digest, peer_lineage_digest;
	uint64_t live, peer_live; /* rows, as of HELLO */
	uint64_t head_seq; /* of our index, before anything was taken */
	uint32_t copying_round; /* in which nothing is moved, as a move failed in the one before, or of what was pushed */
	struct knowledge peer_knowledge;
	bool peer_has_knowledge;
	bool in_sync, stuck;
	uint64_t peer_skipped, peer_held;
	uint64_t full_count, peer_full; /* paths of this round for which a disk had no room */
	uint64_t peer_disk_held; /* of its HELLO */
	uint32_t confirmed_until; /* round up to which session_confirm counts; 0: it was not called */

	/* pushing: see push.c */
	enum { FIRST_UNKNOWN, FIRST_NOTHING, FIRST_NEWS } first; /* is there news for the peer at our address? */
	bool fed;	   /* in the last round (first: of the last session) the peer had all that we had at fed_seq */
	uint64_t fed_seq;  /* local sequence of the index */
	uint64_t hello_seq, done_seq; /* that the roots of HELLO and DONE are of */
	bool composing;	   /* JOB_PUSH is under way: HELLO is to be said then */
	enum push_state push;
	struct message_push pushed; /* its rows; our HELLO, or the comparison, comes after them */

	/* walking */
	struct diff *diff;
	struct ask *asks; /* owned, with `diff`: ASK_SLOTS, of which n_asks were used by now */
	size_t n_asks;
	bool never_met; /* ranges are matched before they are asked for */
	struct match_asked matches[MATCHES_MAX];
	uint32_t next_id;
	size_t asks_out, pairs_out, pair_rows; /* in state OUT or ANSWERED; PAIRED, and `matches`; rows of PAIRED */
	struct pending_rows *rows_head, **rows_tail;
	size_t rows_n;

	/* taking */
	struct batch *batches; /* in order; the last may be filling */
	size_t n_batches, backlog, pending;
	struct offer **deferred;
	size_t n_deferred, cap_deferred;
	const struct offer *waits; /* the last one that was deferred for a move's sake */
	bool deferred_overflow; /* more than the budget: forgotten, the round joins nothing */
	uint64_t deferred_deletes;
	struct offer *fetch_head, **fetch_tail;
	struct offer *tree_head, **tree_tail; /* with a tree to be walked once there is room for it */
	uint64_t chunks_held;		      /* most that the contents under way have: SESSION_CHUNKS_MAX */
	struct fetch_request *fetches, **fetches_tail;
	struct nodes_request *nodes_out;
	struct stage_op *ops_head, **ops_tail;
	struct reuse *reuse; /* owned; the plan lane's */
	uint64_t window; /* bytes asked for and not yet written */
	size_t requests_out, names_out;
	char **skipped;
	size_t n_skipped, cap_skipped;
	bool skipped_overflow;
	uint64_t skipped_count, held_count;
	uint64_t applied, conflicts;
	uint64_t differing, differences; /* paths that differ and may: of this round so far, of the last one */

	/* serving */
	struct serve_request *serve_head, **serve_tail;
	size_t serve_n, serve_names;
	struct served served[SERVED_MAX]; /* the last ones, round about */
	unsigned served_at;
	unsigned level;	    /* content's compression; see serve.c */
	uint64_t wire_free; /* content read since the wire had not yet taken what was read before */
	uint64_t wire_busy; /* content read since it last had */

	/* jobs */
	struct session_job *queue[SESSION_LANES], **queue_tail[SESSION_LANES];
	bool lane_busy[SESSION_LANES];

	/* the end */
	bool failed;
	int error;
	uint16_t code;
	char text[MESSAGE_TEXT_BYTES_MAX];
};

/* session.c */
int session_send(struct session *s, uint8_t type, const union message *m);
/* In two halves: see frame_prepare. */
int session_prepare(struct frame_writer *w, struct buf *frames, uint8_t type, const union message *m);
int session_send_prepared(struct session *s, struct buf *frames);
int session_step(struct session *s);
struct session_job *session_job_new(struct session *s, enum job_type type, enum session_lane lane);
void session_job_queue(struct session *s, struct session_job *job);
void session_job_free(struct session_job *job);
bool session_we_send(const struct session *s);
bool session_we_take(const struct session *s);
/* The peer broke the protocol: -EBADMSG with a reason for people. */
int session_protocol_error(struct session *s, const char *why);
int session_bye(struct session *s);

/* greet.c */
int greet_open(struct session *s);
int greet_send(struct session *s);
int greet_settle(struct session *s); /* both greeted: the next step towards one id, or PREPARING */
int greet_confirm(struct session *s); /* the peer's HELLO came: be joined */
int greet_check_folder(struct session *s); /* -EBUSY: another session took the replica to another id; this one is over */
int greet_handle_open(struct session *s, union message *m);
int greet_handle_greet(struct session *s, union message *m);
int greet_done_join(struct session *s, struct session_job *job);
int greet_done_renew(struct session *s, int error);

/* round.c */
int round_send_lineage(struct session *s, bool last);
/* -ESTALE: the session is over, since the peer shows that we were restored while running. */
int round_hear(struct session *s, const struct version_vector *v);
int round_start(struct session *s);
int round_say_hello(struct session *s); /* with what can be pushed: now or soon */
int round_send_hello(struct session *s);
struct message_hello round_hello(struct session *s); /* what it says of the disk */
/* What it says of the index, as of t. n_lineage: how many entries there were at some time after t began. Any thread. */
int round_fill_hello(struct session *s, struct index_txn *t, size_t n_lineage, struct message_hello *h, uint64_t *ret_seq);
void round_said_hello(struct session *s, const struct message_hello *h, uint64_t seq);
int round_begin_taking(struct session *s);
void round_end_taking(struct session *s); /* K is joined, or will not be; harmless when it did not begin */
bool round_knowledge_known(const struct session *s); /* of the peer's K: all its incarnations */
int round_record_anew(struct session *s, bool *ret_wait);
int round_step(struct session *s);
int round_live_step(struct session *s);
int round_handle_lineage(struct session *s, union message *m);
int round_handle_hello(struct session *s, union message *m);
int round_handle_push(struct session *s, union message *m);
int round_handle_walked(struct session *s, union message *m);
int round_handle_done(struct session *s, union message *m);
void round_forget_skipped(struct session *s);

/* push.c */
bool push_possible(struct session *s);
bool push_awaits_greeting(struct session *s); /* a client's first HELLO */
int push_begin(struct session *s);
void push_run(struct session_job *job);
int push_done(struct session *s, struct session_job *job);
void push_take(struct session *s, struct message_push *m); /* its rows are moved */
int push_step(struct session *s); /* while s->push */
void push_reset(struct session *s);

/* learn.c */
void learn_run_lineage(struct session_job *job);
void learn_run(struct session_job *job);

/* compare.c */
int compare_begin(struct session *s);
int compare_pump(struct session *s); /* asks, and rows that can be dealt with now */
int compare_ask(struct session *s, union message *m); /* may take the message over */
int compare_entries(struct session *s, struct message_entries *m); /* takes them over */
int compare_rows(struct session *s, uint8_t type, union message *m); /* takes the message over */
bool compare_idle(const struct session *s);
bool compare_we_walk(const struct session *s); /* where the roots differ */
void compare_reset(struct session *s);
size_t compare_about_bytes(const struct record *r); /* that it takes in a message */
/* Are all of the record's incarnations known here? */
bool compare_introduced(const struct session *s, const struct record *record);

/* compare_match.c */
enum { MATCH_NOTHING = 1 }; /* we have nothing in the range: ask for it */
int compare_never_met(struct session *s, bool *ret);
int compare_match_ask(struct session *s, const struct diff_range *range);
int compare_match_answer(struct session *s, const struct message_match *m, struct shared_vector *k);
int compare_matched(struct session *s, const struct message_match *m, struct shared_vector *k);
void compare_match_free(struct match_asked *m);

/* fetch.c */
int fetch_offer(struct session *s, const char *path, struct record *theirs, struct shared_vector *k); /* theirs is moved; NULL: absent */
int fetch_pushed(struct session *s, struct message_pushed *row, struct shared_vector *k); /* its record and bytes are moved */
int fetch_pump(struct session *s);
bool fetch_idle(const struct session *s);
void fetch_run_plan(struct session_job *job);
void fetch_run_apply(struct session_job *job);
int fetch_done_plan(struct session *s, struct session_job *job);
int fetch_done_apply(struct session *s, struct session_job *job);
void fetch_reset(struct session *s);
int fetch_skip(struct session *s, const char *path);
struct shared_vector *shared_vector_new(const struct version_vector *v);
void shared_vector_unref(struct shared_vector *k);
void batch_free(struct session *s, struct batch *b);

/* fetch_nodes.c */
int fetch_nodes(struct session *s, const struct message_nodes *m);

/* fetch_content.c */
int fetch_data(struct session *s, const struct message_data *m);
int fetch_pieces(struct session *s, const struct message_pieces *m);
int fetch_gone(struct session *s, const struct message_gone *m);
void fetch_op_free(struct session *s, struct stage_op *op);
void fetch_run_stage(struct session_job *job);
int fetch_done_stage(struct session *s, struct session_job *job);

/* fetch_deferred.c */
int fetch_flush_deferred(struct session *s);

/* serve.c */
int serve_fetch(struct session *s, struct message_fetch *m); /* takes the requests over */
int serve_nodes(struct session *s, const struct message_nodes_ask *m);
int serve_pump(struct session *s);
/* All of a file that is small enough for memory, if it is what the index says. The caller's; NULL: it is not. Read lane. */
uint8_t *serve_small(struct replica *replica, const char *path, const struct content *content);
void serve_run_read(struct session_job *job);
int serve_done_read(struct session *s, struct session_job *job);
void serve_reset(struct session *s);
void serve_requests_free(struct serve_request *list);
/* So much content was read. taken: what was read before it is on its way. */
void serve_watch_wire(struct session *s, uint64_t content, bool taken);

#endif
