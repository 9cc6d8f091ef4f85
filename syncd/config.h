/*
 * syncd/config.h — syncd.conf: INI, parsed by inih, one table of keys. Errors are "file:line: what, what to do".
 *
 *   [daemon]            socket, log_level, limit_up, limit_down, max_sessions, scan_cpu, scan_io
 *   [folder NAME]       path, state_dir, hash, settle, interval, rescan_interval, conflict, prefer, tombstone_grace, member_expiry,
 *                       trash_keep, trash_max, serve_users, owner, limit_up, limit_down
 *   [peer NAME]         folder, address, mode, revert, transport, identity, known_hosts, syncctl_path, connect_timeout, limit_up, limit_down
 *
 * Unknown sections and keys, doubled keys, missing ones, bad values, overlapping folders are errors.
 * Durations: a number with ms, s, min, h, d. Sizes: with K, M, G, T (powers of 1024). Rates: with K or KiB, KB, kbit, … and maybe
 * "/s"; 0 or off: no limit. Paths are absolute or begin with "~/",
 * which is resolved; lists are separated by commas or spaces; a ';' after white space begins a comment.
 */
#ifndef SYNCD_CONFIG_H
#define SYNCD_CONFIG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "merkle/hash.h"
#include "tombstones/decide.h"
#include "transfer/transport.h"

#define CONFIG_RATE_MIN UINT64_C(1024) /* slower, the sides would take each other for dead */
#define CONFIG_RATE_MAX (UINT64_C(1) << 40)

/* Bytes a second of a session's stream; 0: no limit. */
struct config_limits {
	uint64_t up, down;
};

enum config_mode { CONFIG_TWO_WAY, CONFIG_PUSH, CONFIG_PULL };

struct config_folder {
	char *name;
	char *path;
	char *state_dir;		 /* NULL: inside the folder */
	enum hash_algorithm algorithm;	 /* 0: hash_algorithm_usual */
	int64_t settle_ms;		 /* default 500 */
	int64_t interval_ms;		 /* root check with each peer; default 5 min */
	int64_t rescan_interval_ms;	 /* whole scan; default 1 h */
	int64_t grace_ms;		 /* tombstone_grace; default 10 d */
	int64_t member_expiry_ms;	 /* default 90 d; 0 never */
	int64_t trash_keep_ms;		 /* default 30 d */
	uint64_t trash_max_bytes;	 /* 0: no limit */
	enum decide_policy_kind conflict;
	char **prefer;			 /* replica ids (16 hex digits), best first */
	size_t n_prefer;
	char **serve_users;		 /* user names or uids that may serve it; default: owner of .syncd and root */
	size_t n_serve_users;
	bool owner;			 /* preserve owner and group (needs root); default: yes as root */
	struct config_limits limits;	 /* of all its sessions together */
	unsigned line;
};

struct config_peer {
	char *name;
	char *folder;			 /* [folder NAME] */
	char *address;			 /* PATH, [user@]host:PATH, ssh://[user@]host[:port]/PATH */
	enum config_mode mode;
	bool revert;			 /* with CONFIG_PULL: what is changed here is undone */
	bool transport_ssh;		 /* transport = ssh (system's) instead of syncd-ssh */
	char *identity, *known_hosts, *syncctl_path;
	int64_t connect_timeout_ms;
	struct config_limits limits;
	unsigned line;
};

struct config {
	char *file;
	char *socket;			 /* NULL: the default */
	int log_level;			 /* enum log_level */
	struct config_limits limits;	 /* of all sessions together */
	unsigned max_sessions;		 /* at a time; 0: no limit */
	unsigned scan_cpu_percent;	 /* of one processor, for all whole scans together; 0: no limit */
	uint64_t scan_io;		 /* bytes a second that they read; 0: no limit */
	struct config_folder *folders;
	size_t n_folders;
	struct config_peer *peers;
	size_t n_peers;
};

/* All errors found are given to tell ("file:line: text"; may be NULL), not only the first. -EINVAL if there were any; -ENOENT etc.
 * if the file cannot be read, of which tell says nothing. */
int config_load(struct config **ret, const char *file, void (*tell)(const char *line, void *data), void *data);
void config_free(struct config *c);
const struct config_folder *config_find_folder(const struct config *c, const char *name);
/* -EINVAL: not one; -ERANGE: too large. 0 needs no unit. */
int config_parse_duration(const char *text, int64_t *ret_ms);
int config_parse_size(const char *text, uint64_t *ret_bytes);
/* -ERANGE also: neither 0 nor from CONFIG_RATE_MIN to CONFIG_RATE_MAX. 0 and off need no unit. */
int config_parse_rate(const char *text, uint64_t *ret_bytes_per_s);
/* "25%" or "25 %"; 0 and off: 0. -ERANGE: more than CONFIG_PERCENT_MAX. */
int config_parse_percent(const char *text, unsigned *ret);
#define CONFIG_PERCENT_MAX 100000

#endif
