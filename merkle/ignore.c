/*
 * merkle/ignore.c — which paths are not ours: gitignore's syntax, see merkle/ignore.h.
 *
 * A pattern is cut at '/' into segments, and a segment "**" stands for any number of components.
 * Both levels — segments against components, a glob against a component's bytes — are matched by
 * going back to the last star only. That is enough, since whatever an earlier star could take
 * instead, the last one can take too; so a match costs at most pattern × path steps, whatever the
 * pattern.
 */
#include "merkle/ignore.h"

#include <ctype.h>
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#define HASH_NONFATAL_OOM 1 /* then the element has no table */
#include <uthash.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/file.h"
#include "merkle/hash.h"

#define RACY_NS (2 * CLOCK_NS_PER_S)

struct rule {
	char *pattern;	     /* segments, each NUL-terminated; owned */
	uint32_t bytes;	     /* of pattern, with all NULs */
	bool negated;	     /* '!' */
	bool directory_only; /* trailing '/' */
	bool anchored; /* had a '/' before its end: matched from the file's directory, else against
			  names */
};

/* What the file looked like when it was read. */
struct file_mark {
	uint64_t ino, size;
	int64_t mtime_ns, ctime_ns;
	int64_t read_ns; /* wall clock before reading; 0: not from a file */
};

struct rule_set {
	char *dir; /* owned; the key */
	size_t depth;
	struct rule *rules;
	size_t n;
	uint64_t digest;
	struct file_mark mark;
	UT_hash_handle hh;
};

struct ignore {
	pthread_rwlock_t lock;
	struct rule_set *sets;
	atomic_bool any; /* sets; so that nobody takes the lock for each name where there are no rules */
};

struct component {
	const char *s;
	size_t n;
};

static void rule_set_free(struct rule_set *set)
{
	if (!set)
		return;
	for (size_t k = 0; k < set->n; k++)
		free(set->rules[k].pattern);
	free(set->rules);
	free(set->dir);
	free(set);
}

DEFINE_CLEANUP(struct rule_set *, rule_set_free)

int ignore_new(struct ignore **ret)
{
	struct ignore *i = calloc(1, sizeof(*i));
	int r;

	if (!i)
		return -ENOMEM;
	r = pthread_rwlock_init(&i->lock, NULL);
	if (r) {
		free(i);
		return -r;
	}
	*ret = i;
	return 0;
}

void ignore_free(struct ignore *i)
{
	struct rule_set *set, *next;

	if (!i)
		return;
	HASH_ITER (hh, i->sets, set, next) {
		HASH_DEL(i->sets, set);
		rule_set_free(set);
	}
	pthread_rwlock_destroy(&i->lock);
	free(i);
}

/* --- globs: one segment against one name --- */

static int (*class_of(const char *name, size_t n))(int)
{
	static const struct {
		const char *name;
		int (*is)(int);
	} classes[] = {
		{"alnum", isalnum},
		{"alpha", isalpha},
		{"blank", isblank},
		{"cntrl", iscntrl},
		{"digit", isdigit},
		{"graph", isgraph},
		{"lower", islower},
		{"print", isprint},
		{"punct", ispunct},
		{"space", isspace},
		{"upper", isupper},
		{"xdigit", isxdigit},
	};

	for (size_t k = 0; k < ARRAY_SIZE(classes); k++)
		if (strlen(classes[k].name) == n && !memcmp(classes[k].name, name, n))
			return classes[k].is;
	return NULL;
}

/* One byte of a set, after a backslash perhaps. NULL: the pattern ends. */
static const char *set_byte(const char *p, uint8_t *ret)
{
	if (*p == '\\')
		p++;
	if (!*p)
		return NULL;
	*ret = (uint8_t)*p;
	return p + 1;
}

/* p: behind '['. Returns what is behind the closing ']', NULL if there is none. */
static const char *set_match(const char *p, uint8_t byte, bool *ret)
{
	bool inverted = *p == '!' || *p == '^';
	bool found = false;
	uint8_t low, high;

	if (inverted)
		p++;
	for (bool first = true; first || *p != ']'; first = false) {
		const char *close;

		if (p[0] == '[' && p[1] == ':' && (close = strstr(p + 2, ":]"))) {
			int (*is)(int) = class_of(p + 2, (size_t)(close - p - 2));

			if (!is)
				return NULL;
			found |= byte < 0x80 && is(byte);
			p = close + 2;
			continue;
		}
		p = set_byte(p, &low);
		if (!p)
			return NULL;
		high = low;
		if (p[0] == '-' && p[1] && p[1] != ']') {
			p = set_byte(p + 1, &high);
			if (!p)
				return NULL;
		}
		found |= byte >= low && byte <= high;
	}
	*ret = found != inverted;
	return p + 1;
}

/* Does the pattern's next element, which is not a star, match the byte? Returns what follows it, or
 * NULL. */
static const char *one_match(const char *p, uint8_t byte)
{
	bool found = false;

	switch (*p) {
	case '\0':
		return NULL;
	case '?':
		return p + 1;
	case '[':
		p = set_match(p + 1, byte, &found);
		return found ? p : NULL;
	case '\\':
		p++;
	}
	return (uint8_t)*p == byte ? p + 1 : NULL;
}

static bool glob_match(const char *p, const char *s, size_t n)
{
	const char *end = s + n, *star = NULL, *mark = NULL, *next;

	while (s < end) {
		if (*p == '*') {
			star = ++p;
			mark = s;
		} else if ((next = one_match(p, (uint8_t)*s))) {
			p = next;
			s++;
		} else if (star) {
			p = star;
			s = ++mark;
		} else {
			return false;
		}
	}
	while (*p == '*')
		p++;
	return !*p;
}

static bool glob_valid(const char *p)
{
	bool found;

	while (*p) {
		if (*p == '[') {
			p = set_match(p + 1, 0, &found);
			if (!p)
				return false;
			continue;
		}
		if (*p == '\\' && !*++p)
			return false;
		p++;
	}
	return true;
}

/* --- rules --- */

static const char *segment_next(const char *segment)
{
	return segment + strlen(segment) + 1;
}

/* Any number of components: a segment of two or more stars and nothing else. */
static bool segment_is_any(const char *segment)
{
	size_t stars = strspn(segment, "*");

	return stars >= 2 && !segment[stars];
}

static bool segments_match(const struct rule *rule, const struct component *c, size_t n)
{
	const char *p = rule->pattern, *end = p + rule->bytes, *any = NULL;
	size_t k = 0, mark = 0;

	while (k < n) {
		if (p < end && segment_is_any(p)) {
			p = any = segment_next(p);
			mark = k;
		} else if (p < end && glob_match(p, c[k].s, c[k].n)) {
			p = segment_next(p);
			k++;
		} else if (any) {
			p = any;
			k = ++mark;
		} else {
			return false;
		}
	}
	while (p < end && segment_is_any(p))
		p = segment_next(p);
	return p == end;
}

static bool rule_match(const struct rule *rule, const struct component *c, size_t n, bool directory)
{
	if (rule->directory_only && !directory)
		return false;
	if (!rule->anchored)
		return glob_match(rule->pattern, c[n - 1].s, c[n - 1].n);
	return segments_match(rule, c, n);
}

/* Cut the pattern at '/' in place. false: an empty segment, or one that is no glob. */
static bool segments_cut(char *pattern, size_t n, char **ret_last)
{
	for (size_t k = 0; k < n; k++)
		if (pattern[k] == '/')
			pattern[k] = '\0';
	for (char *p = pattern; p < pattern + n; p += strlen(p) + 1) {
		if (*p && glob_valid(p))
			*ret_last = p;
		else
			return false;
	}
	return n && pattern[n - 1];
}

/* "\/" is "/"; git never sees the difference either. Returns the new length. */
static size_t unescape_slashes(char *p, size_t n)
{
	size_t to = 0;

	for (size_t k = 0; k < n; k++) {
		if (p[k] == '\\' && k + 1 < n) {
			if (p[k + 1] != '/')
				p[to++] = p[k];
			k++;
		}
		p[to++] = p[k];
	}
	return to;
}

/* Trailing blanks go unless a backslash stands before them. */
static size_t trim(const char *line, size_t n)
{
	size_t keep = 0;

	if (n && line[n - 1] == '\r')
		n--;
	for (size_t k = 0; k < n; k++) {
		if (line[k] == '\\' && k + 1 < n)
			keep = ++k + 1;
		else if (line[k] != ' ')
			keep = k + 1;
	}
	return keep;
}

/* 0, or 1: no rule in this line, with *ret_bad raised if it was meant to be one. */
static int rule_parse(const char *line, size_t n, struct rule *ret, size_t *ret_bad)
{
	cleanup_free char *pattern = NULL;
	struct rule rule = {0};
	char *last = NULL;

	n = trim(line, n);
	if (!n || line[0] == '#')
		return 1;
	if (line[0] == '!') {
		rule.negated = true;
		line++;
		n--;
	}
	pattern = malloc(n + 3); /* room for "*" behind a last "**" */
	if (!pattern)
		return -ENOMEM;
	memcpy(pattern, line, n);
	n = unescape_slashes(pattern, n);
	if (n && pattern[n - 1] == '/') {
		rule.directory_only = true;
		n--;
	}
	rule.anchored = memchr(pattern, '/', n);
	if (n && pattern[0] == '/')
		memmove(pattern, pattern + 1, --n);
	pattern[n] = '\0';
	if (memchr(pattern, '\0', n) || !segments_cut(pattern, n, &last)) {
		++*ret_bad;
		return 1;
	}
	/* a last "**" is all below, not the directory itself */
	if (rule.anchored && segment_is_any(last)) {
		memcpy(pattern + n + 1, "*", 2);
		n += 2;
	}
	rule.bytes = (uint32_t)n + 1;
	rule.pattern = steal(pattern);
	*ret = rule;
	return 0;
}

static void rule_set_seal(struct rule_set *set)
{
	uint64_t digest = hash_fast(set->dir, strlen(set->dir), 0);

	for (size_t k = 0; k < set->n; k++) {
		const struct rule *rule = &set->rules[k];
		uint64_t flags = rule->negated | rule->directory_only << 1 | rule->anchored << 2;

		digest = hash_fast(rule->pattern, rule->bytes, digest + flags);
	}
	set->digest = digest;
}

static int rule_set_parse(
	struct rule_set **ret, const char *dir, const char *text, size_t n, size_t *ret_bad)
{
	cleanup(rule_set_free_p) struct rule_set *set = calloc(1, sizeof(*set));
	const char *end = text + n;
	size_t cap = 0;
	int r;

	if (!set || !(set->dir = strdup(dir)))
		return -ENOMEM;
	for (const char *p = dir; *p; p++)
		set->depth += p == dir || *p == '/';
	if (n >= 3 && !memcmp(text, "\xef\xbb\xbf", 3))
		text += 3;
	for (const char *line = text, *eol; line < end; line = eol + 1) {
		eol = memchr(line, '\n', (size_t)(end - line));
		if (!eol)
			eol = end;
		r = array_reserve(&set->rules, &cap, set->n + 1, sizeof(*set->rules));
		if (r < 0)
			return r;
		r = rule_parse(line, (size_t)(eol - line), &set->rules[set->n], ret_bad);
		if (r < 0)
			return r;
		if (r == 0 && ++set->n > IGNORE_RULES_MAX)
			return -EFBIG;
	}
	rule_set_seal(set);
	*ret = steal(set);
	return 0;
}

static struct rule_set *rule_set_find(const struct ignore *i, const char *dir, size_t n)
{
	struct rule_set *set;

	HASH_FIND(hh, i->sets, dir, n, set);
	return set;
}

/* Takes the set, NULL to remove. IGNORE_CHANGED or 0; without memory nothing is changed. */
static int rule_set_install(struct ignore *i, const char *dir, struct rule_set *set)
{
	struct rule_set *old;
	uint64_t before, after = set && set->n ? set->digest : 0;
	bool lost = false;

	pthread_rwlock_wrlock(&i->lock);
	old = rule_set_find(i, dir, strlen(dir));
	before = old && old->n ? old->digest : 0;
	if (set) {
		HASH_ADD_KEYPTR(hh, i->sets, set->dir, strlen(set->dir), set);
		lost = !set->hh.tbl;
	}
	if (old && !lost) {
		HASH_DEL(i->sets, old);
		rule_set_free(old);
	}
	i->any = i->sets != NULL;
	pthread_rwlock_unlock(&i->lock);
	if (lost) {
		rule_set_free(set);
		return -ENOMEM;
	}
	return before != after ? IGNORE_CHANGED : 0;
}

int ignore_set(struct ignore *i, const char *dir, const char *text, size_t n, size_t *ret_bad)
{
	struct rule_set *set = NULL;
	size_t bad = 0;
	int r = n ? rule_set_parse(&set, dir, text, n, &bad) : 0;

	if (r < 0)
		return r;
	r = rule_set_install(i, dir, set);
	if (r < 0)
		return r;
	if (ret_bad)
		*ret_bad = bad;
	return 0;
}

static bool at_or_below(const char *path, const char *above)
{
	size_t n = strlen(above);

	return !n || (!strncmp(path, above, n) && (!path[n] || path[n] == '/'));
}

void ignore_forget(struct ignore *i, const char *dir)
{
	struct rule_set *set, *next;

	pthread_rwlock_wrlock(&i->lock);
	HASH_ITER (hh, i->sets, set, next) {
		if (at_or_below(set->dir, dir)) {
			HASH_DEL(i->sets, set);
			rule_set_free(set);
		}
	}
	i->any = i->sets != NULL;
	pthread_rwlock_unlock(&i->lock);
}

/* --- matching --- */

struct lookup {
	struct component c[FILE_DEPTH_MAX];
	size_t n;				     /* components */
	const struct rule_set *sets[FILE_DEPTH_MAX]; /* that apply, shallow first */
	size_t n_sets;
};

/* false: no rules apply, or the path is deeper than any that is synced. */
static bool lookup_prepare(const struct ignore *i, const char *path, struct lookup *ret)
{
	const char *p = path;

	ret->n = ret->n_sets = 0;
	if (!i->sets)
		return false;
	for (;;) {
		size_t above = p == path ? 0 : (size_t)(p - path - 1);
		const struct rule_set *set = rule_set_find(i, path, above);

		if (ret->n == FILE_DEPTH_MAX)
			return false;
		if (set && set->n)
			ret->sets[ret->n_sets++] = set;
		ret->c[ret->n].s = p;
		ret->c[ret->n].n = strcspn(p, "/");
		p += ret->c[ret->n++].n;
		if (!*p++)
			return ret->n_sets;
	}
}

/* Is the path's first `n` components ignored, nothing above them being so? The last matching line
 * of the deepest file that has one decides. */
static bool lookup_ignored(const struct lookup *l, size_t n, bool directory)
{
	for (size_t k = l->n_sets; k-- > 0;) {
		const struct rule_set *set = l->sets[k];

		if (set->depth >= n)
			continue;
		for (size_t m = set->n; m-- > 0;)
			if (rule_match(
				    &set->rules[m], l->c + set->depth, n - set->depth, directory))
				return !set->rules[m].negated;
	}
	return false;
}

static bool match(const struct ignore *i, const char *path, bool directory, bool above_too)
{
	pthread_rwlock_t *lock = (pthread_rwlock_t *)&i->lock;
	struct lookup l;
	bool ignored = false;

	if (!*path || !i->any)
		return false;
	pthread_rwlock_rdlock(lock);
	if (lookup_prepare(i, path, &l)) {
		for (size_t n = above_too ? 1 : l.n; n < l.n && !ignored; n++)
			ignored = lookup_ignored(&l, n, true);
		ignored = ignored || lookup_ignored(&l, l.n, directory);
	}
	pthread_rwlock_unlock(lock);
	return ignored;
}

bool ignore_match(const struct ignore *i, const char *path, bool directory)
{
	return match(i, path, directory, true);
}

bool ignore_match_name(const struct ignore *i, const char *path, bool directory)
{
	return match(i, path, directory, false);
}

uint64_t ignore_digest(const struct ignore *i)
{
	pthread_rwlock_t *lock = (pthread_rwlock_t *)&i->lock;
	const struct rule_set *set;
	uint64_t digest = 0;
	bool any = false;

	pthread_rwlock_rdlock(lock);
	for (set = i->sets; set; set = set->hh.next) {
		if (!set->n)
			continue;
		any = true;
		digest += set->digest; /* addition: the order of setting must not show */
	}
	pthread_rwlock_unlock(lock);
	return any && !digest ? 1 : digest;
}

/* --- the files --- */

static bool mark_current(const struct file_mark *mark, const struct file_stat *st)
{
	int64_t newest = st->mtime_ns > st->ctime_ns ? st->mtime_ns : st->ctime_ns;

	return mark->read_ns && mark->ino == st->ino && mark->size == st->size &&
	       mark->mtime_ns == st->mtime_ns && mark->ctime_ns == st->ctime_ns &&
	       newest < mark->read_ns - RACY_NS;
}

static bool read_already(struct ignore *i, const char *dir, const struct file_stat *st)
{
	const struct rule_set *set;
	bool current;

	pthread_rwlock_rdlock(&i->lock);
	set = rule_set_find(i, dir, strlen(dir));
	current = set && mark_current(&set->mark, st);
	pthread_rwlock_unlock(&i->lock);
	return current;
}

static int file_rules(int dirfd, const char *dir, struct rule_set **ret)
{
	cleanup_close int fd = -1;
	cleanup_free char *text = NULL;
	struct file_stat st;
	int64_t now = clock_wall_ns();
	size_t n, bad = 0;
	int r;

	r = file_open_read(dirfd, IGNORE_FILE_NAME, &fd);
	if (r)
		return r;
	r = file_stat_fd(fd, &st);
	if (r)
		return r;
	if (st.size > IGNORE_FILE_BYTES_MAX)
		return -EFBIG;
	text = malloc(IGNORE_FILE_BYTES_MAX + 1);
	if (!text)
		return -ENOMEM;
	r = file_read(fd, text, IGNORE_FILE_BYTES_MAX + 1, 0, &n);
	if (r)
		return r;
	if (n > IGNORE_FILE_BYTES_MAX)
		return -EFBIG;
	r = rule_set_parse(ret, dir, text, n, &bad);
	if (r)
		return r;
	(*ret)->mark = (struct file_mark){st.ino, st.size, st.mtime_ns, st.ctime_ns, now};
	return 0;
}

int ignore_read(struct ignore *i, int dirfd, const char *dir)
{
	struct rule_set *set = NULL;
	struct file_stat st;
	int r;

	r = file_stat_at(dirfd, IGNORE_FILE_NAME, &st);
	if (r == 0 && st.kind == FILE_KIND_REGULAR) {
		if (read_already(i, dir, &st))
			return 0;
		r = file_rules(dirfd, dir, &set);
	} else if (r == 0) {
		r = FILE_UNSUPPORTED;
	}
	if (r < 0)
		return r;
	if (r == FILE_DENIED)
		return -EACCES;
	/* any other outcome: no such regular file here, or not any more */
	return rule_set_install(i, dir, r ? NULL : set);
}
