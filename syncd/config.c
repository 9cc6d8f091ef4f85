/*
 * syncd/config.c — see syncd/config.h.
 *
 * inih splits the lines; it reads them through read_line(), which knows what inih does not tell its handler: the line's number,
 * sections without keys, lines that are neither, and values longer than inih's line. A section's item is added even where it is
 * wrong, so that the errors inside it are found too; with one error the configuration as a whole is refused.
 */
#include "syncd/config_internal.h"

#include <errno.h>
#include <ini.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/error.h"
#include "base/log.h"
#include "syncd/endpoint.h"

#define NAME_BYTES_MAX 64
#define LINE_BYTES_MAX (64 * 1024)
#define NEAR_DISTANCE 2

static const char *const section_names[] = {
	[SECTION_DAEMON] = "daemon",
	[SECTION_FOLDER] = "folder",
	[SECTION_PEER] = "peer",
};

static const struct config_word log_levels[] = {
	{"error", LOG_LEVEL_ERROR}, {"warning", LOG_LEVEL_WARNING}, {"info", LOG_LEVEL_INFO}, {"debug", LOG_LEVEL_DEBUG}, {0}};
static const struct config_word hashes[] = {{"sha256", HASH_SHA256}, {"blake2b", HASH_BLAKE2B}, {"xxh3", HASH_XXH3}, {0}};
static const struct config_word policies[] = {
	{"keep-both", DECIDE_KEEP_BOTH}, {"newest", DECIDE_NEWEST}, {"prefer", DECIDE_PREFER}, {0}};
static const struct config_word modes[] = {{"two-way", CONFIG_TWO_WAY}, {"push", CONFIG_PUSH}, {"pull", CONFIG_PULL}, {0}};
static const struct config_word yes_no[] = {{"yes", true}, {"no", false}, {0}};
static const struct config_word transports[] = {{"syncd-ssh", false}, {"ssh", true}, {0}};

#define IN_DAEMON(f) SECTION_DAEMON, .offset = offsetof(struct config, f)
#define IN_FOLDER(f) SECTION_FOLDER, .offset = offsetof(struct config_folder, f)
#define IN_PEER(f) SECTION_PEER, .offset = offsetof(struct config_peer, f)
#define WORDS(w, s) .words = (w), .say = (s)

static const struct config_key keys[] = {
	{IN_DAEMON(socket), .name = "socket", .parse = config_value_socket},
	{IN_DAEMON(log_level), .name = "log_level", .parse = config_value_words, WORDS(log_levels, "error, warning, info or debug")},
	{IN_DAEMON(limits.up), .name = "limit_up", .parse = config_value_rate},
	{IN_DAEMON(limits.down), .name = "limit_down", .parse = config_value_rate},
	{IN_DAEMON(max_sessions), .name = "max_sessions", .parse = config_value_number},
	{IN_DAEMON(scan_cpu_percent), .name = "scan_cpu", .parse = config_value_percent},
	{IN_DAEMON(scan_io), .name = "scan_io", .parse = config_value_rate},
	{IN_FOLDER(path), .name = "path", .parse = config_value_path, .required = true},
	{IN_FOLDER(state_dir), .name = "state_dir", .parse = config_value_path},
	{IN_FOLDER(algorithm), .name = "hash", .parse = config_value_words, WORDS(hashes, "sha256, blake2b or xxh3")},
	{IN_FOLDER(settle_ms), .name = "settle", .parse = config_value_time, .min = 0, .max = HOUR_MS},
	{IN_FOLDER(interval_ms), .name = "interval", .parse = config_value_time, .min = 100, .max = EVER_MS},
	{IN_FOLDER(rescan_interval_ms), .name = "rescan_interval", .parse = config_value_time, .min = 0, .max = EVER_MS},
	{IN_FOLDER(conflict), .name = "conflict", .parse = config_value_words, WORDS(policies, "keep-both, newest or prefer")},
	{IN_FOLDER(prefer), .offset_n = offsetof(struct config_folder, n_prefer), .name = "prefer", .parse = config_value_ids},
	{IN_FOLDER(grace_ms), .name = "tombstone_grace", .parse = config_value_time, .min = 0, .max = EVER_MS},
	{IN_FOLDER(member_expiry_ms), .name = "member_expiry", .parse = config_value_time, .min = 0, .max = EVER_MS},
	{IN_FOLDER(trash_keep_ms), .name = "trash_keep", .parse = config_value_time, .min = 0, .max = EVER_MS},
	{IN_FOLDER(trash_max_bytes), .name = "trash_max", .parse = config_value_bytes},
	{IN_FOLDER(serve_users), .offset_n = offsetof(struct config_folder, n_serve_users), .name = "serve_users", .parse = config_value_list},
	{IN_FOLDER(owner), .name = "owner", .parse = config_value_flag, WORDS(yes_no, "yes or no")},
	{IN_FOLDER(limits.up), .name = "limit_up", .parse = config_value_rate},
	{IN_FOLDER(limits.down), .name = "limit_down", .parse = config_value_rate},
	{IN_PEER(folder), .name = "folder", .parse = config_value_text, .required = true},
	{IN_PEER(address), .name = "address", .parse = config_value_text, .required = true},
	{IN_PEER(mode), .name = "mode", .parse = config_value_words, WORDS(modes, "two-way, push or pull")},
	{IN_PEER(revert), .name = "revert", .parse = config_value_flag, WORDS(yes_no, "yes or no")},
	{IN_PEER(transport_ssh), .name = "transport", .parse = config_value_flag, WORDS(transports, "syncd-ssh or ssh")},
	{IN_PEER(identity), .name = "identity", .parse = config_value_path},
	{IN_PEER(known_hosts), .name = "known_hosts", .parse = config_value_path},
	{IN_PEER(syncctl_path), .name = "syncctl_path", .parse = config_value_text},
	{IN_PEER(connect_timeout_ms), .name = "connect_timeout", .parse = config_value_time, .min = 100, .max = HOUR_MS},
	{IN_PEER(limits.up), .name = "limit_up", .parse = config_value_rate},
	{IN_PEER(limits.down), .name = "limit_down", .parse = config_value_rate},
};

/* The configuration while it is read. */
struct parser {
	struct config *config;
	void (*tell)(const char *line, void *data);
	void *data;
	FILE *file;
	int error;	     /* what ended the reading, < 0 */
	size_t n_errors;     /* told */
	unsigned line;	     /* number of the current line, from 1 */
	char *buffer;	     /* the current line as read */
	size_t buffer_bytes;
	const char *text;    /* the same without the white space around it */
	bool cut;	     /* inih was given its beginning only */
	bool awaited;	     /* a key = value that inih has not handed over */
	enum config_section section;
	unsigned section_line, daemon_line;
	unsigned seen[ARRAY_SIZE(keys)]; /* in this section: the line of each key, or 0 */
	size_t folders_cap, peers_cap;
};

/* --- telling --- */

__attribute__((format(printf, 3, 4))) static void complain(struct parser *p, unsigned line, const char *fmt, ...)
{
	char text[2048];
	va_list args;
	int n;

	p->n_errors++;
	if (!p->tell)
		return;
	n = snprintf(text, sizeof(text), "%s:%u: ", p->config->file, line);
	if (n < 0 || (size_t)n >= sizeof(text))
		n = 0;
	va_start(args, fmt);
	vsnprintf(text + n, sizeof(text) - (size_t)n, fmt, args);
	va_end(args);
	p->tell(text, p->data);
}

/* Insertions, deletions and replacements that make b of a; NEAR_DISTANCE + 1 stands for anything more. */
static size_t distance(const char *a, const char *b)
{
	size_t n = strlen(a), m = strlen(b), row[NAME_BYTES_MAX + 1];

	if (n > NAME_BYTES_MAX || m > NAME_BYTES_MAX)
		return NEAR_DISTANCE + 1;
	for (size_t j = 0; j <= m; j++)
		row[j] = j;
	for (size_t i = 1; i <= n; i++) {
		size_t corner = row[0];

		row[0] = i;
		for (size_t j = 1; j <= m; j++) {
			size_t best = corner + (a[i - 1] != b[j - 1]);

			corner = row[j];
			if (best > row[j - 1] + 1)
				best = row[j - 1] + 1;
			if (best > row[j] + 1)
				best = row[j] + 1;
			row[j] = best;
		}
	}
	return row[m] <= NEAR_DISTANCE ? row[m] : NEAR_DISTANCE + 1;
}

/* Keep candidate in *best if it is nearer to text than what was there. */
static void nearer(const char *text, const char *candidate, const char **best, size_t *best_distance)
{
	size_t d = distance(text, candidate);

	/* a word of three letters is near to too much */
	if (d >= *best_distance || d >= strlen(candidate))
		return;
	*best = candidate;
	*best_distance = d;
}

/* --- sections --- */

static void *section_item(struct parser *p)
{
	if (p->section == SECTION_FOLDER)
		return &p->config->folders[p->config->n_folders - 1];
	return p->section == SECTION_PEER ? (void *)&p->config->peers[p->config->n_peers - 1] : p->config;
}

static const char *section_label(struct parser *p)
{
	if (p->section == SECTION_DAEMON)
		return "";
	return p->section == SECTION_FOLDER ? p->config->folders[p->config->n_folders - 1].name
					    : p->config->peers[p->config->n_peers - 1].name;
}

/* What the section should have had. */
static void end_section(struct parser *p)
{
	for (size_t i = 0; i < ARRAY_SIZE(keys); i++)
		if (keys[i].section == p->section && keys[i].required && !p->seen[i])
			complain(p, p->section_line, "the %s %s has no %s: add a line %s = …", section_names[p->section],
				quoted(section_label(p)), keys[i].name, keys[i].name);
	p->section = SECTION_NONE;
	memset(p->seen, 0, sizeof(p->seen));
}

static int add_folder(struct parser *p, const char *name, size_t n)
{
	struct config *c = p->config;
	struct config_folder folder = {
		.settle_ms = 500,
		.interval_ms = 300 * SECOND_MS,
		.rescan_interval_ms = HOUR_MS,
		.grace_ms = 10 * DAY_MS,
		.member_expiry_ms = 90 * DAY_MS,
		.trash_keep_ms = 30 * DAY_MS,
		.conflict = DECIDE_KEEP_BOTH,
		.owner = geteuid() == 0,
		.line = p->line,
	};

	if (array_reserve(&c->folders, &p->folders_cap, c->n_folders + 1, sizeof(*c->folders)) < 0)
		return -ENOMEM;
	folder.name = strndup(name, n);
	if (!folder.name)
		return -ENOMEM;
	c->folders[c->n_folders++] = folder;
	return 0;
}

static int add_peer(struct parser *p, const char *name, size_t n)
{
	struct config *c = p->config;
	struct config_peer peer = {.mode = CONFIG_TWO_WAY, .connect_timeout_ms = 20 * SECOND_MS, .line = p->line};

	if (array_reserve(&c->peers, &p->peers_cap, c->n_peers + 1, sizeof(*c->peers)) < 0)
		return -ENOMEM;
	peer.name = strndup(name, n);
	if (!peer.name)
		return -ENOMEM;
	c->peers[c->n_peers++] = peer;
	return 0;
}

/* Names become file names, and words on command lines. */
static bool good_name(const char *name, size_t n)
{
	if (!n || n > NAME_BYTES_MAX || *name == '.' || *name == '-')
		return false;
	for (size_t i = 0; i < n; i++)
		if (!((name[i] >= 'a' && name[i] <= 'z') || (name[i] >= 'A' && name[i] <= 'Z') || (name[i] >= '0' && name[i] <= '9') ||
				    strchr("._-", name[i])))
			return false;
	return true;
}

static void unknown_section(struct parser *p, const char *kind, size_t n)
{
	char text[NAME_BYTES_MAX + 1];
	const char *best = NULL;
	size_t d = NEAR_DISTANCE + 1;

	snprintf(text, sizeof(text), "%.*s", (int)(n < NAME_BYTES_MAX ? n : NAME_BYTES_MAX), kind);
	for (size_t i = SECTION_DAEMON; i <= SECTION_PEER; i++)
		nearer(text, section_names[i], &best, &d);
	if (best)
		complain(p, p->line, "there is no section %s: did you mean [%s%s]?", quoted(text), best,
			strcmp(best, "daemon") == 0 ? "" : " NAME");
	else
		complain(p, p->line, "there is no section %s: there are [daemon], [folder NAME] and [peer NAME]", quoted(text));
}

/* "[kind name]", at p->text. */
static void begin_section(struct parser *p)
{
	const char *start = p->text + 1 + strspn(p->text + 1, " \t"), *end = strchr(start, ']'), *rest, *name;
	size_t n_kind = strcspn(start, " \t]"), n;

	end_section(p);
	p->section = SECTION_UNKNOWN;
	p->section_line = p->line;
	rest = end ? end + 1 + strspn(end + 1, " \t") : NULL;
	if (!end || (*rest && *rest != ';' && *rest != '#')) {
		complain(p, p->line, "the section's line does not end with ]: write [daemon], [folder NAME] or [peer NAME]");
		return;
	}
	for (size_t i = SECTION_DAEMON; i <= SECTION_PEER; i++)
		if (strlen(section_names[i]) == n_kind && memcmp(section_names[i], start, n_kind) == 0)
			p->section = (enum config_section)i;
	if (p->section == SECTION_UNKNOWN) {
		unknown_section(p, start, n_kind);
		return;
	}
	name = start + n_kind + strspn(start + n_kind, " \t");
	for (n = (size_t)(end - name); n && (name[n - 1] == ' ' || name[n - 1] == '\t');)
		n--;
	if (p->section == SECTION_DAEMON) {
		if (n)
			complain(p, p->line, "[daemon] has no name: write [daemon]");
		if (p->daemon_line)
			complain(p, p->line, "a second [daemon]: move its lines to the one in line %u", p->daemon_line);
		p->daemon_line = p->line;
		return;
	}
	if (!n)
		complain(p, p->line, "the %s has no name: write [%s NAME]", section_names[p->section], section_names[p->section]);
	else if (!good_name(name, n))
		complain(p, p->line,
			"this is no name for a %s: use at most %d letters, digits, and any of . _ - other than at the beginning (. -)",
			section_names[p->section], NAME_BYTES_MAX);
	p->error = p->section == SECTION_FOLDER ? add_folder(p, name, n) : add_peer(p, name, n);
}

/* --- keys --- */

static void unknown_key(struct parser *p, const char *name)
{
	const char *best = NULL;
	size_t d = NEAR_DISTANCE + 1;

	for (size_t i = 0; i < ARRAY_SIZE(keys); i++) {
		if (strcmp(keys[i].name, name) == 0) {
			complain(p, p->line, "%s belongs in [%s%s]: move it there", name, section_names[keys[i].section],
				keys[i].section == SECTION_DAEMON ? "" : " NAME");
			return;
		}
		if (keys[i].section == p->section)
			nearer(name, keys[i].name, &best, &d);
	}
	if (best)
		complain(p, p->line, "there is no key %s: did you mean %s?", quoted(name), best);
	else
		complain(p, p->line, "there is no key %s in [%s%s]: see syncd.conf(5)", quoted(name), section_names[p->section],
			p->section == SECTION_DAEMON ? "" : " NAME");
}

static bool has_control_bytes(const char *text)
{
	for (; *text; text++)
		if (((unsigned char)*text < ' ' && *text != '\t') || *text == 0x7f)
			return true;
	return false;
}

static void set_key(struct parser *p, size_t i, const char *value)
{
	const struct config_key *key = &keys[i];
	char *item = section_item(p);
	const char *why = NULL;
	int r;

	if (p->seen[i]) {
		complain(p, p->line, "a second %s, the first is in line %u: remove one", key->name, p->seen[i]);
		return;
	}
	p->seen[i] = p->line;
	if (!*value) {
		complain(p, p->line, "%s has no value: give it one, or remove the line", key->name);
		return;
	}
	if (has_control_bytes(value)) {
		complain(p, p->line, "%s = %s: there are control characters in it: remove them", key->name, quoted(value));
		return;
	}
	r = key->parse(key, value, item + key->offset, (size_t *)(void *)(item + key->offset_n), &why);
	if (r == -EINVAL && key->words)
		complain(p, p->line, "%s = %s: it must be %s", key->name, quoted(value), key->say);
	else if (r == -EINVAL)
		complain(p, p->line, "%s = %s: %s", key->name, quoted(value), why);
	else
		p->error = r;
}

/* The value of a line that inih was given the beginning of: what follows the '=', up to a comment. */
static char *whole_value(struct parser *p)
{
	char *value = p->buffer + (p->text - p->buffer), *end; /* p->text, to be written to */

	value += strcspn(value, "=:");
	value += *value != 0;
	value += strspn(value, " \t");
	for (end = value; *end && !(*end == ';' && (end[-1] == ' ' || end[-1] == '\t')); end++)
		;
	while (end > value && (end[-1] == ' ' || end[-1] == '\t'))
		end--;
	*end = 0;
	return value;
}

/* inih's handler. */
static int on_key(void *user, const char *section, const char *name, const char *value)
{
	struct parser *p = user;

	(void)section;
	p->awaited = false;
	if (p->cut)
		value = whole_value(p);
	if (p->section == SECTION_UNKNOWN || p->error < 0)
		return 1;
	if (p->section == SECTION_NONE) {
		complain(p, p->line, "%s comes before any section: begin with [daemon], [folder NAME] or [peer NAME]", quoted(name));
		return 1;
	}
	for (size_t i = 0; i < ARRAY_SIZE(keys); i++) {
		if (keys[i].section == p->section && strcmp(keys[i].name, name) == 0) {
			set_key(p, i, value);
			return 1;
		}
	}
	unknown_key(p, name);
	return 1;
}

/* --- lines --- */

/* The last line was a key = value to us, but not to inih. */
static void end_line(struct parser *p)
{
	if (p->awaited)
		complain(p, p->line, "this line is neither [SECTION] nor KEY = VALUE: correct it, or begin it with # if it is a comment");
	p->awaited = false;
}

/* Read a line into p->text. False at the end. */
static bool next_line(struct parser *p)
{
	ssize_t n;
	char *start, *end;

	errno = 0;
	n = getline(&p->buffer, &p->buffer_bytes, p->file);
	if (n < 0) {
		if (!feof(p->file))
			p->error = errno ? -errno : -EIO;
		return false;
	}
	p->line++;
	start = p->buffer;
	if (p->line == 1 && strncmp(start, "\xef\xbb\xbf", 3) == 0)
		start += 3;
	if (memchr(p->buffer, 0, (size_t)n) || n > LINE_BYTES_MAX) {
		complain(p, p->line, n > LINE_BYTES_MAX ? "the line is too long: shorten it"
							: "there is a zero byte in the line: is this a configuration file?");
		start = p->buffer;
		*start = 0;
	}
	start += strspn(start, " \t\r\n\v\f");
	for (end = start + strlen(start); end > start && strchr(" \t\r\n\v\f", end[-1]);)
		*--end = 0;
	p->text = start;
	return true;
}

/* inih's reader, in fgets' place. It gets no white space before the text, which would mean a continued value to it. */
static char *read_line(char *ret, int size, void *stream)
{
	struct parser *p = stream;
	size_t n;

	end_line(p);
	if (p->error < 0 || !next_line(p))
		return NULL;
	n = strlen(p->text);
	p->cut = n > (size_t)size - 2;
	if (*p->text == '[')
		begin_section(p);
	else
		p->awaited = *p->text && *p->text != '#' && *p->text != ';';
	if (*p->text == '[' || !p->awaited)
		n = 0; /* nothing in it for inih */
	else if (p->cut)
		n = (size_t)size - 2;
	memcpy(ret, p->text, n);
	strcpy(ret + n, "\n");
	return ret;
}

/* --- what must hold between sections --- */

/* a is b, or lies inside it. */
static bool inside(const char *a, const char *b)
{
	size_t n = strlen(b);

	if (n == 1)
		return true; /* "/" */
	return strncmp(a, b, n) == 0 && (!a[n] || a[n] == '/');
}

/* Symlinks resolved where it exists. ret has PATH_MAX bytes. */
static const char *real_path(const char *path, char *ret)
{
	if (!path)
		return NULL;
	return realpath(path, ret) ? ret : path;
}

static void check_two_folders(struct parser *p, const struct config_folder *a, const struct config_folder *b, const char *path_a,
	const char *path_b)
{
	if (strcmp(a->name, b->name) == 0)
		complain(p, b->line, "a second folder %s, the first is in line %u: give it another name", quoted(b->name), a->line);
	if (a->state_dir && b->state_dir && strcmp(a->state_dir, b->state_dir) == 0)
		complain(p, b->line, "the folders %s and %s have the same state_dir: give each its own", quoted(a->name), quoted(b->name));
	if (!path_a || !path_b || !(inside(path_a, path_b) || inside(path_b, path_a)))
		return;
	if (strcmp(path_a, path_b) == 0)
		complain(p, b->line, "the folders %s (line %u) and %s are the same directory, %s: remove one", quoted(a->name), a->line,
			quoted(b->name), quoted(b->path));
	else
		complain(p, b->line, "the folders %s (%s, line %u) and %s (%s) lie one inside the other: move one of them", quoted(a->name),
			quoted(a->path), a->line, quoted(b->name), quoted(b->path));
}

static void check_folder(struct parser *p, size_t i)
{
	const struct config *c = p->config;
	const struct config_folder *f = &c->folders[i];
	char buffer[PATH_MAX], other_buffer[PATH_MAX], state_buffer[PATH_MAX];
	const char *path = real_path(f->path, buffer), *state = real_path(f->state_dir, state_buffer);

	for (size_t j = 0; j < c->n_folders; j++) {
		const char *other = real_path(c->folders[j].path, other_buffer);

		if (j < i)
			check_two_folders(p, &c->folders[j], f, other, path);
		if (state && other && inside(state, other))
			complain(p, f->line, "the state_dir of the folder %s, %s, lies inside the folder %s: put it outside of all folders",
				quoted(f->name), quoted(f->state_dir), quoted(c->folders[j].name));
	}
	if (f->conflict == DECIDE_PREFER && !f->n_prefer)
		complain(p, f->line, "the folder %s has conflict = prefer, but does not say whom: add prefer = ID …", quoted(f->name));
	if (f->conflict != DECIDE_PREFER && f->n_prefer)
		complain(p, f->line, "the folder %s has prefer, which means nothing without conflict = prefer: add that, or remove it",
			quoted(f->name));
}

static void check_peer_folder(struct parser *p, const struct config_peer *peer)
{
	const struct config *c = p->config;
	const char *best = NULL;
	size_t d = NEAR_DISTANCE + 1;

	if (!peer->folder || config_find_folder(c, peer->folder))
		return;
	for (size_t i = 0; i < c->n_folders; i++)
		nearer(peer->folder, c->folders[i].name, &best, &d);
	if (best)
		complain(p, peer->line, "the peer %s is for a folder %s, which is not there: did you mean %s?", quoted(peer->name),
			quoted(peer->folder), quoted(best));
	else
		complain(p, peer->line, "the peer %s is for a folder %s, which is not there: add [folder …], or name one that is",
			quoted(peer->name), quoted(peer->folder));
}

/* A directory on this machine. */
static void check_local_address(struct parser *p, const struct config_peer *peer, const char *path)
{
	const struct config_folder *f = peer->folder ? config_find_folder(p->config, peer->folder) : NULL;
	char buffer[PATH_MAX], own_buffer[PATH_MAX];
	const char *there = real_path(path, buffer), *own = f ? real_path(f->path, own_buffer) : NULL;

	if (*path != '/' && strncmp(path, "~/", 2) != 0)
		complain(p, peer->line,
			"the address of the peer %s, %s, is a relative path: write host:PATH for another machine, or the path from /",
			quoted(peer->name), quoted(peer->address));
	else if (own && (inside(there, own) || inside(own, there)))
		complain(p, peer->line,
			"the address of the peer %s, %s, and its folder's path are, or contain, the same directory: correct one",
			quoted(peer->name), quoted(peer->address));
}

/* What is changed here must not be a two-way peer's as well. */
static void check_revert(struct parser *p, const struct config_peer *peer)
{
	const struct config *c = p->config;

	if (!peer->revert)
		return;
	if (peer->mode != CONFIG_PULL)
		complain(p, peer->line, "the peer %s has revert = yes, which goes with mode = pull only: add that, or remove it",
			quoted(peer->name));
	for (size_t i = 0; i < c->n_peers; i++) {
		const struct config_peer *other = &c->peers[i];

		if (other != peer && other->mode == CONFIG_TWO_WAY && other->folder && peer->folder &&
				strcmp(other->folder, peer->folder) == 0)
			complain(p, peer->line,
				"the peer %s has revert = yes, but the peer %s (line %u) of the same folder is two-way: what comes from "
				"there is no local change; make it pull or push, or remove revert",
				quoted(peer->name), quoted(other->name), other->line);
	}
}

static void check_peer(struct parser *p, size_t i)
{
	const struct config *c = p->config;
	const struct config_peer *peer = &c->peers[i];
	struct endpoint e = {0};
	const char *why;
	int r;

	for (size_t j = 0; j < i; j++)
		if (strcmp(c->peers[j].name, peer->name) == 0)
			complain(p, peer->line, "a second peer %s, the first is in line %u: give it another name", quoted(peer->name),
				c->peers[j].line);
	check_peer_folder(p, peer);
	check_revert(p, peer);
	if (!peer->address)
		return;
	r = endpoint_parse(&e, peer->address, &why);
	if (r == -EINVAL)
		complain(p, peer->line, "the address of the peer %s, %s, is wrong: %s; write host:PATH or ssh://host/PATH",
			quoted(peer->name), quoted(peer->address), why);
	else if (r < 0)
		p->error = r;
	else if (!e.remote)
		check_local_address(p, peer, e.path);
	endpoint_deinit(&e);
}

/* --- the whole --- */

void config_free(struct config *c)
{
	if (!c)
		return;
	for (size_t i = 0; i < c->n_folders; i++) {
		struct config_folder *f = &c->folders[i];

		free(f->name);
		free(f->path);
		free(f->state_dir);
		config_free_list(f->prefer, f->n_prefer);
		config_free_list(f->serve_users, f->n_serve_users);
	}
	for (size_t i = 0; i < c->n_peers; i++) {
		struct config_peer *peer = &c->peers[i];

		free(peer->name);
		free(peer->folder);
		free(peer->address);
		free(peer->identity);
		free(peer->known_hosts);
		free(peer->syncctl_path);
	}
	free(c->folders);
	free(c->peers);
	free(c->socket);
	free(c->file);
	free(c);
}

DEFINE_CLEANUP(struct config *, config_free)

const struct config_folder *config_find_folder(const struct config *c, const char *name)
{
	for (size_t i = 0; i < c->n_folders; i++)
		if (strcmp(c->folders[i].name, name) == 0)
			return &c->folders[i];
	return NULL;
}

static int parse(struct parser *p)
{
	int r = ini_parse_stream(read_line, p, on_key, p);

	if (r == -2)
		return -ENOMEM;
	if (p->error < 0)
		return p->error;
	end_section(p);
	for (size_t i = 0; i < p->config->n_folders; i++)
		check_folder(p, i);
	for (size_t i = 0; i < p->config->n_peers; i++)
		check_peer(p, i);
	if (p->error < 0)
		return p->error;
	return p->n_errors || r ? -EINVAL : 0;
}

int config_load(struct config **ret, const char *file, void (*tell)(const char *line, void *data), void *data)
{
	cleanup(config_free_p) struct config *c = calloc(1, sizeof(*c));
	struct parser p = {.config = c, .tell = tell, .data = data};
	int r;

	if (!c)
		return -ENOMEM;
	c->log_level = LOG_LEVEL_INFO;
	c->file = strdup(file);
	if (!c->file)
		return -ENOMEM;
	p.file = fopen(file, "re");
	if (!p.file)
		return -errno;
	r = parse(&p);
	free(p.buffer);
	fclose(p.file);
	if (r == 0)
		*ret = steal(c);
	return r;
}
