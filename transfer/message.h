/*
 * transfer/message.h — every message of the protocol, in one table. No input or output.
 *
 *   client (who connected)                     server (`syncctl serve`)
 *     OPEN, GREET                            →
 *                                            ←   GREET                      who we are, who sends, which folder
 *     GREET again, from one side at a time, until replica ids differ and folder ids do not (transfer/meeting.h)
 *   then both sides speak the same way; a round:
 *     HELLO (root, K)                        ↔   HELLO                      equal roots: join K, DONE, live
 *     LINEAGE where the digests differ       ↔   LINEAGE
 *   the side with the greater replica id walks:
 *     ASK ranges                             →
 *                                            ←   ENTRIES
 *     PAIR: own rows and wants of a range    →
 *                                            ←   ROWS: the answerer's of the same paths, absences proven
 *     MATCH: versions of a range (instead    →
 *       of ASK, if they never met)           ←   MATCHED: the answerer's, where all else is equal
 *     WALKED                                 →
 *   who takes something asks for its content:
 *     NODES_ASK, NODES_NAMED, FETCH          ↔   NODES, NODES_TOLD, DATA, BULK, PIECES, GONE
 *     DONE (own handling is over, K joined)  ↔   DONE                       both: the round is over, live
 *   a change on either side: HELLO of the next round, or, where all else is known to be equal, PUSH: a HELLO with the rows that
 *       changed since, and small contents. It is dealt with before the HELLO that answers it. In a session's first round a client may
 *       push what changed since the last session, with LINEAGE before it
 *   KEEPALIVE at any time; FAIL, BYE end the session.
 *
 * A message that is unknown, too long, malformed or out of place ends the session with FAIL; it never is taken for absence.
 * Every field is bounded here. Formats: little-endian and varints of base/buf.h.
 */
#ifndef TRANSFER_MESSAGE_H
#define TRANSFER_MESSAGE_H

#include "merkle/diff.h"
#include "merkle/match.h"
#include "merkle/store.h"
#include "tombstones/knowledge.h"
#include "transfer/pieces.h"

#define MESSAGE_TEXT_BYTES_MAX 1024
#define MESSAGE_NAME_BYTES_MAX 255
#define MESSAGE_PREFER_MAX 64
#define MESSAGE_LINEAGE_MAX 4096    /* incarnations in one LINEAGE */
#define MESSAGE_ASK_MAX 64	    /* ranges in one ASK */
#define MESSAGE_ITEMS_MAX 4096	    /* rows in one PAIR or ROWS */
#define MESSAGE_WANTS_MAX 8192
#define MESSAGE_GROUPS_MAX 64	    /* in one MATCH or MATCHED */
#define MESSAGE_VERSIONS_MAX (16 * 1024) /* bytes of versions of a group */
#define MESSAGE_NODES_MAX 64	    /* nodes in one NODES_ASK or NODES */
#define MESSAGE_NODE_NAMES_MAX 16384 /* of old entries, in one NODES_NAMED */
#define MESSAGE_FETCH_MAX 256	    /* requests in one FETCH */
#define MESSAGE_RANGES_MAX 256	    /* ranges in one request */
#define MESSAGE_NAMES_MAX 32768	    /* of old pieces, in one FETCH */
#define MESSAGE_REQUEST_BYTES_MAX (8 * 1024 * 1024) /* bytes that one request may ask for */
#define MESSAGE_DATA_BYTES_MAX (256 * 1024)
#define MESSAGE_BULK_MAX 256	    /* DATA in one BULK */
#define MESSAGE_BULK_BYTES_MAX (128 * 1024) /* of content in one: as much as zstd compresses as one block */
#define MESSAGE_PUSHED_MAX 512	    /* rows in one PUSH */
#define MESSAGE_SMALL_BYTES_MAX (16 * 1024) /* content that may come with a row */
#define MESSAGE_PIECES_BYTES_MAX (1024 * 1024)
#define MESSAGE_BYTES_MAX (2 * 1024 * 1024) /* no payload is longer */
#define MESSAGE_SPLIT_BYTES (192 * 1024) /* PAIR and ROWS are split about here */

enum message_type { /* values are part of the protocol */
	MESSAGE_OPEN = 1,
	MESSAGE_GREET,
	MESSAGE_LINEAGE,
	MESSAGE_HELLO,
	MESSAGE_ASK,
	MESSAGE_ENTRIES,
	MESSAGE_PAIR,
	MESSAGE_ROWS,
	MESSAGE_WALKED,
	MESSAGE_NODES_ASK,
	MESSAGE_NODES,
	MESSAGE_FETCH,
	MESSAGE_DATA,
	MESSAGE_GONE,
	MESSAGE_DONE,
	MESSAGE_KEEPALIVE,
	MESSAGE_FAIL,
	MESSAGE_BYE,
	MESSAGE_PIECES,
	MESSAGE_MATCH,
	MESSAGE_MATCHED,
	MESSAGE_PUSH,
	MESSAGE_BULK,
	MESSAGE_NODES_NAMED,
	MESSAGE_NODES_TOLD,
	MESSAGE_TYPES, /* one more than the last */
};

/* What the client asks of the far side; a forced command on the far side has the last word. */
struct message_open {
	char *place;	    /* a path, or a configured folder's name */
	uint8_t create;	    /* make the replica (and the directory's .syncd) where there is none */
	uint8_t algorithm;  /* for a created folder; 0: default */
	uint8_t sends;	    /* the far side shall send / take */
	uint8_t takes;
	uint8_t live;	    /* the client stays connected */
	uint8_t confirmed;  /* deletions beyond the budget were confirmed by a person */
	char *version;	    /* the program's version, for messages */
};

struct message_greet {
	uint64_t replica;
	struct store_folder folder; /* see transfer/meeting.h */
	uint8_t sends, takes;
	uint8_t policy;	   /* enum decide_policy_kind */
	uint64_t *prefer;  /* owned */
	size_t n_prefer;
	uint64_t nonce;	   /* the session's seed is the XXH3 of both, the client's first */
	char *name;	   /* what this replica's machine is called */
	char *version;
};

struct message_lineage {
	struct version_incarnation *v; /* owned; parents first */
	size_t n;
	uint8_t last; /* no more of this batch follows */
};

struct message_hello {
	uint32_t round;		  /* from 1 */
	struct hash root;	  /* of the live records */
	uint64_t live;		  /* how many */
	uint64_t lineage_digest;
	uint64_t ignore_digest;
	uint64_t held;		  /* deletions seen on disk that wait to be confirmed: no records yet, so that roots may be equal */
	uint64_t unread;	  /* paths on disk that are left out for now, likewise; 0 in older versions */
	struct version_dot own;	  /* open incarnation, counter */
	uint8_t has_knowledge;	  /* a side that does not send shows no K */
	struct knowledge knowledge;
};

struct message_pushed {
	char *path; /* owned */
	struct record record;
	uint8_t *bytes; /* a live file's whole content; owned; NULL: it is to be asked for */
	size_t n;	/* 0, or record.content.size */
};

/* Rows as of the transaction that its root and K are of. */
struct message_push {
	struct message_hello hello; /* has_knowledge */
	struct message_pushed *rows; /* at least one, in ascending order of paths (strcmp); owned */
	size_t n;
};

struct message_range {
	uint32_t id;
	struct diff_range range;
};

struct message_ask {
	struct message_range *v; /* owned */
	size_t n;
};

struct message_entries {
	uint32_t id;
	struct diff_entry *v; /* owned */
	size_t n;
	uint8_t cut;
	struct path_key from; /* with cut */
};

enum message_tell { /* of an item */
	MESSAGE_ABSENT = 0,
	MESSAGE_RECORD = 1,
	MESSAGE_UNTOLD = 2, /* a side that does not send: only the path */
};

struct message_item {
	char *path; /* owned */
	uint8_t tell;
	struct record record;
	uint8_t has_k; /* K of this path is an exception: */
	struct version_vector k;
};

struct message_pair { /* PAIR and ROWS */
	uint32_t id;		 /* the range's, from ASK */
	uint8_t last;		 /* the last message for this id */
	uint8_t has_k;
	struct version_vector k; /* the sender's K in the transaction that the items were read in */
	struct message_item *items;
	size_t n_items;
	struct diff_range range; /* PAIR: where the wants are */
	uint64_t *wants;	 /* PAIR: separators of rows that the walker wants */
	size_t n_wants;
};

struct message_group {
	uint64_t separator;	    /* MATCH: of its first path; it goes on to the next group's */
	struct match_digest digest; /* MATCH: of all its paths and values */
	uint8_t *versions;	    /* see merkle/match.h; owned; NULL: not told (MATCH: it is to be asked for; MATCHED: it differs) */
	size_t n;
};

struct message_match { /* MATCH and MATCHED */
	uint32_t id;
	struct diff_range range; /* MATCH: which the groups are */
	struct version_vector k; /* the sender's K, for each path in it, in the transaction that the groups were read in */
	struct match_table table;
	struct message_group *groups;
	size_t n_groups;
};

struct message_nodes_ask { /* NODES_ASK and NODES_NAMED */
	uint32_t id;
	struct hash *v;
	size_t n;
	uint32_t *names; /* NODES_NAMED: of entries that are here, in the order in which they stand, see transfer/pieces.h; one at least */
	size_t n_names;
};

enum message_node_present { MESSAGE_NODE_ABSENT, MESSAGE_NODE_WHOLE, MESSAGE_NODE_TOLD /* with the names of its request */ };

struct message_node {
	uint8_t present; /* NODES_TOLD: any; NODES: not TOLD */
	uint8_t level;
	uint32_t length;  /* TOLD: of the payload; what is here is the answer that tells it */
	uint8_t *payload; /* owned */
	size_t n;
};

struct message_nodes { /* NODES and NODES_TOLD */
	uint32_t id;
	struct message_node *v;
	size_t n;
};

struct message_fetch_range {
	uint64_t offset;
	uint32_t length;
};

struct message_request {
	uint32_t id;
	char *path;
	struct content content;
	struct message_fetch_range *v;
	size_t n;
	uint32_t *names; /* of pieces that are here, see transfer/pieces.h: answers may be PIECES */
	size_t n_names;
	uint8_t piece_bits; /* with names */
};

struct message_fetch {
	struct message_request *v;
	size_t n;
};

struct message_data {
	uint32_t id;
	uint32_t range;		/* number of the request's range */
	uint32_t at;		/* offset inside the range */
	const uint8_t *bytes;	/* not owned: inside the frame */
	size_t n;
};

/* What would be so many DATA, in this order: small ones cost less together. */
struct message_bulk {
	struct message_data *v;
	size_t n;
};

/* A whole range, told with the names of its request. Shorter than the range. */
struct message_pieces {
	uint32_t id;
	uint32_t range;
	const uint8_t *bytes; /* not owned: inside the frame */
	size_t n;
};

enum message_gone_reason { MESSAGE_GONE_CHANGED = 1, MESSAGE_GONE_ERROR = 2, MESSAGE_GONE_REFUSED = 3 };

struct message_gone {
	uint32_t id;
	uint8_t reason;
};

struct message_done {
	uint32_t round;
	struct hash root;	 /* of the live records now */
	uint64_t skipped;	 /* paths of this round that stay different, for now */
	uint64_t held;		 /* of them: deletions that wait for a person */
	uint64_t full;		 /* of them: for which the disk has no room */
	uint8_t excepted;	 /* K has exceptions */
	struct version_vector k; /* acknowledgement: K after joining */
};

struct message_fail {
	uint16_t code; /* enum message_fail_code */
	char *text;    /* for people; escaped by the receiver */
};

enum message_fail_code { /* values are part of the protocol */
	MESSAGE_FAIL_PROTOCOL = 1,
	MESSAGE_FAIL_NO_FOLDER = 2,
	MESSAGE_FAIL_DENIED = 3,
	MESSAGE_FAIL_FOLDER_ID = 4,
	MESSAGE_FAIL_HALTED = 5,
	MESSAGE_FAIL_BUSY = 6,
	MESSAGE_FAIL_SPACE = 7,
	MESSAGE_FAIL_INTERNAL = 8,
	MESSAGE_FAIL_SAME = 9,
};

struct message_walked {
	uint32_t round;
};

union message {
	struct message_open open;
	struct message_greet greet;
	struct message_lineage lineage;
	struct message_hello hello;
	struct message_ask ask;
	struct message_entries entries;
	struct message_pair pair;
	struct message_nodes_ask nodes_ask;
	struct message_nodes nodes;
	struct message_fetch fetch;
	struct message_data data;
	struct message_bulk bulk;
	struct message_pieces pieces;
	struct message_match match;
	struct message_gone gone;
	struct message_done done;
	struct message_fail fail;
	struct message_walked walked;
	struct message_push push;
};

struct message_info {
	const char *name;
	size_t max_bytes; /* of the payload */
	bool from_client_only;
	bool compress;	  /* worth trying */
	void (*put)(struct buf *b, const union message *m);
	void (*get)(struct cursor *c, union message *m);
	void (*deinit)(union message *m);
};

/* NULL for types that do not exist. */
const struct message_info *message_info(uint8_t type);
size_t message_max_bytes(uint8_t type); /* 0 for unknown types: for frame_reader_new */

/* 0, -EBADMSG or -ENOMEM-like. On failure nothing is left to free. *ret must be freed with message_deinit. */
int message_decode(uint8_t type, const void *payload, size_t n, union message *ret);
int message_encode(uint8_t type, const union message *m, struct buf *ret);
void message_deinit(uint8_t type, union message *m);
void message_request_deinit(struct message_request *r); /* one that was taken out of its FETCH */

#endif
