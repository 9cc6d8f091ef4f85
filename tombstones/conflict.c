/*
 * tombstones/conflict.c — see tombstones/conflict.h.
 *
 *   dir/ stem .sync-conflict- 0123456789ab [-n] .ext
 *        |          marker with its tail       |
 */
#include "tombstones/conflict.h"

#include <assert.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "merkle/path.h"

#define MARKER ".sync-conflict-"
#define MARKER_BYTES (sizeof(MARKER) - 1)
#define DIGITS 12
#define TAIL_BYTES_MAX (MARKER_BYTES + DIGITS + 1 + 10) /* with "-" and a number of 32 bits */

/* A last component in its parts; pointers into the path. */
struct parts {
	const char *stem;
	size_t stem_bytes;
	const char *extension; /* with its dot, or "" */
	const char *marker;    /* of a copy: what follows the stem; else NULL */
};

static bool is_digit(char c)
{
	return c >= '0' && c <= '9';
}

/* Length of a marker with its digits and number at p, 0 if there is none. */
static size_t marker_bytes(const char *p)
{
	size_t n = MARKER_BYTES, number;

	if (strncmp(p, MARKER, MARKER_BYTES) != 0)
		return 0;
	for (size_t i = 0; i < DIGITS; i++, n++)
		if (!is_digit(p[n]) && !(p[n] >= 'a' && p[n] <= 'f'))
			return 0;
	number = n + 1;
	if (p[n] != '-' || !is_digit(p[number]) || p[number] == '0')
		return n;
	while (is_digit(p[number]))
		number++;
	return number;
}

/* The last marker with something before it that is followed by nothing or an extension. */
static const char *find_marker(const char *name, const char **ret_rest)
{
	for (size_t i = strlen(name); i-- > 1;) {
		size_t n = marker_bytes(name + i);
		const char *rest = name + i + n;

		if (!n || strlen(rest) > CONFLICT_EXTENSION_BYTES_MAX)
			continue;
		if (!*rest || (*rest == '.' && !strchr(rest + 1, '.'))) {
			*ret_rest = rest;
			return name + i;
		}
	}
	return NULL;
}

static struct parts split(const char *name)
{
	const char *rest, *dot, *marker = find_marker(name, &rest);

	if (marker)
		return (struct parts){.stem = name,
			.stem_bytes = (size_t)(marker - name),
			.extension = rest,
			.marker = marker};
	dot = strrchr(name, '.');
	if (!dot || dot == name || strlen(dot) > CONFLICT_EXTENSION_BYTES_MAX)
		dot = name + strlen(name);
	return (struct parts){.stem = name, .stem_bytes = (size_t)(dot - name), .extension = dot};
}

/* At most max bytes of the stem, without a torn UTF-8 sequence at the end. */
static size_t cut(const char *stem, size_t n, size_t max)
{
	size_t at = max;

	if (n <= max)
		return n;
	while (at > 0 && max - at < 3 && ((unsigned char)stem[at] & 0xc0) == 0x80)
		at--;
	/* more continuation bytes than any sequence has: not UTF-8, any place is as good */
	return ((unsigned char)stem[at] & 0xc0) == 0x80 ? max : at;
}

/* A copy of a copy with the same content must not be named like what it is copied from. */
static unsigned step_over_itself(const struct parts *p, const char *hex, unsigned n)
{
	unsigned long own = 1;

	if (!p->marker || strncmp(p->marker + MARKER_BYTES, hex, DIGITS) != 0)
		return n;
	if (p->marker[MARKER_BYTES + DIGITS] == '-')
		own = strtoul(p->marker + MARKER_BYTES + DIGITS + 1, NULL, 10);
	return n >= own ? n + 1 : n;
}

char *conflict_path(const char *path, const struct hash *content, unsigned n)
{
	const char *name = path_name(path);
	struct parts p = split(name);
	size_t dir_bytes = (size_t)(name - path), name_max = FILE_NAME_BYTES_MAX, fixed;
	char tail[TAIL_BYTES_MAX + 1], hex[DIGITS + 1], *ret;

	assert(n > 0 && n < UINT_MAX);
	hash_hex(content, DIGITS / 2, hex);
	n = step_over_itself(&p, hex, n);
	if (n == 1)
		snprintf(tail, sizeof(tail), MARKER "%s", hex);
	else
		snprintf(tail, sizeof(tail), MARKER "%s-%u", hex, n);
	if (dir_bytes + name_max > FILE_PATH_BYTES_MAX)
		name_max = dir_bytes < FILE_PATH_BYTES_MAX ? FILE_PATH_BYTES_MAX - dir_bytes : 0;
	fixed = strlen(tail) + strlen(p.extension);
	p.stem_bytes = cut(p.stem, p.stem_bytes, name_max > fixed ? name_max - fixed : 0);
	if (asprintf(&ret, "%.*s%.*s%s%s", (int)dir_bytes, path, (int)p.stem_bytes, p.stem, tail,
		    p.extension) < 0)
		return NULL;
	return ret;
}

bool conflict_is_copy(const char *path)
{
	return split(path_name(path)).marker != NULL;
}

char *conflict_original(const char *path)
{
	const char *name = path_name(path);
	struct parts p = split(name);
	char *ret;

	if (!p.marker)
		return NULL;
	if (asprintf(&ret, "%.*s%.*s%s", (int)(name - path), path, (int)p.stem_bytes, p.stem,
		    p.extension) < 0)
		return NULL;
	return ret;
}
