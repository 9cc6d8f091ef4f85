/*
 * merkle/path.c — see merkle/path.h.
 *
 * The state directory's name is refused in every spelling that some file system takes for it:
 * letter case, the long s (which folds to 's'), code points that case-folding ext4, f2fs and HFS+
 * ignore, trailing dots and spaces (vfat, ntfs, cifs), and the 8.3 alias of vfat.
 */
#include "merkle/path.h"

#include <stdlib.h>
#include <string.h>

#include "merkle/hash.h"

_Static_assert(PATH_KEY_PREFIX + 1 + HASH_BYTES == PATH_KEY_BYTES_MAX, "a cut key");
_Static_assert(PATH_KEY_PLAIN_MAX < PATH_KEY_BYTES_MAX, "cut keys are told by their length");

/* Decode one code point; its length, or 0 where the bytes are not UTF-8. */
static size_t utf8_decode(const uint8_t *p, size_t n, uint32_t *ret)
{
	size_t len = p[0] < 0x80   ? 1
		     : p[0] < 0xc2 ? 0
		     : p[0] < 0xe0 ? 2
		     : p[0] < 0xf0 ? 3
		     : p[0] < 0xf5 ? 4
				   : 0;
	uint32_t c;

	if (!len || len > n)
		return 0;
	c = len == 1 ? p[0] : p[0] & (0x7fu >> len);
	for (size_t i = 1; i < len; i++) {
		if ((p[i] & 0xc0) != 0x80)
			return 0;
		c = c << 6 | (p[i] & 0x3f);
	}
	*ret = c;
	return len;
}

/* Unicode's Default_Ignorable_Code_Point, the reserved ones of it included. */
static bool is_ignorable(uint32_t c)
{
	static const struct {
		uint32_t first, last;
	} ranges[] = {
		{0xad, 0xad},
		{0x34f, 0x34f},
		{0x61c, 0x61c},
		{0x115f, 0x1160},
		{0x17b4, 0x17b5},
		{0x180b, 0x180f},
		{0x200b, 0x200f},
		{0x202a, 0x202e},
		{0x2060, 0x206f},
		{0x3164, 0x3164},
		{0xfe00, 0xfe0f},
		{0xfeff, 0xfeff},
		{0xffa0, 0xffa0},
		{0xfff0, 0xfff8},
		{0x1bca0, 0x1bca3},
		{0x1d173, 0x1d17a},
		{0xe0000, 0xe0fff},
	};

	for (size_t i = 0; i < sizeof(ranges) / sizeof(ranges[0]); i++)
		if (c >= ranges[i].first && c <= ranges[i].last)
			return true;
	return false;
}

static uint32_t fold(uint32_t c)
{
	if (c >= 'A' && c <= 'Z')
		return c - 'A' + 'a';
	return c == 0x17f ? 's' : c; /* LATIN SMALL LETTER LONG S */
}

/* Bytes of name[0..n) that a folding file system takes for `word`; 0 if it does not begin like
 * that. */
static size_t folded_prefix(const uint8_t *name, size_t n, const char *word)
{
	size_t at = 0;

	while (at < n) {
		uint32_t c;
		size_t len = utf8_decode(name + at, n - at, &c);

		if (!len)
			return *word ? 0 : at;
		if (!is_ignorable(c)) {
			if (!*word)
				return at;
			if (fold(c) != (uint8_t)*word++)
				return 0;
		}
		at += len;
	}
	return *word ? 0 : at;
}

static bool is_state_name(const uint8_t *name, size_t n)
{
	size_t at;

	if (name[0] < 0x80 && name[0] != '.' && fold(name[0]) != 's')
		return false; /* most names: neither of both begins like that, and nothing in ASCII is ignored */
	at = folded_prefix(name, n, PATH_STATE_NAME);
	if (at) {
		while (at < n && (name[at] == '.' || name[at] == ' '))
			at++;
		return at == n;
	}
	at = folded_prefix(name, n, "syncd~"); /* the 8.3 alias has the name without its dot */
	return at && at + 1 == n && name[at] >= '0' && name[at] <= '9';
}

bool path_component_valid(const char *name, size_t n)
{
	if (!n || n > FILE_NAME_BYTES_MAX || memchr(name, '/', n) || memchr(name, 0, n))
		return false;
	if (name[0] == '.' && (n == 1 || (n == 2 && name[1] == '.')))
		return false;
	return !is_state_name((const uint8_t *)name, n);
}

bool path_valid(const char *path)
{
	size_t depth = 0;

	if (strnlen(path, FILE_PATH_BYTES_MAX + 1) > FILE_PATH_BYTES_MAX)
		return false;
	for (;;) {
		size_t n = strcspn(path, "/");

		if (++depth > FILE_DEPTH_MAX || !path_component_valid(path, n))
			return false;
		if (!path[n])
			return true;
		path += n + 1;
	}
}

void path_key(struct path_key *ret, const char *path)
{
	size_t n = strlen(path), plain = n;

	if (n > PATH_KEY_PLAIN_MAX) {
		struct hash hash;

		hash_bytes(HASH_SHA256, path, n, &hash);
		plain = PATH_KEY_PREFIX;
		n = PATH_KEY_BYTES_MAX;
		ret->bytes[PATH_KEY_PREFIX] = 0xff;
		memcpy(ret->bytes + PATH_KEY_PREFIX + 1, hash.bytes, HASH_BYTES);
	}
	for (size_t i = 0; i < plain; i++)
		ret->bytes[i] = path[i] == '/' ? 0 : (uint8_t)path[i];
	ret->len = (uint16_t)n;
}

int path_key_compare(const struct path_key *a, const struct path_key *b)
{
	int r = memcmp(a->bytes, b->bytes, a->len < b->len ? a->len : b->len);

	return r ? r : (int)a->len - (int)b->len;
}

bool path_is_below(const char *path, const char *above)
{
	size_t n = strlen(above);

	if (!n)
		return *path;
	return !strncmp(path, above, n) && path[n] == '/';
}

size_t path_parent_length(const char *path)
{
	const char *slash = strrchr(path, '/');

	return slash ? (size_t)(slash - path) : 0;
}

bool path_same_parent(const char *a, const char *b)
{
	size_t n = path_parent_length(a);

	return n == path_parent_length(b) && memcmp(a, b, n) == 0;
}

const char *path_name(const char *path)
{
	const char *slash = strrchr(path, '/');

	return slash ? slash + 1 : path;
}

size_t path_depth(const char *path)
{
	size_t depth = *path ? 1 : 0;

	for (; *path; path++)
		depth += *path == '/';
	return depth;
}

char *path_join(const char *dir, const char *name)
{
	size_t d = strlen(dir), n = strlen(name);
	char *path = malloc(d + 1 + n + 1);

	if (!path)
		return NULL;
	memcpy(path, dir, d);
	if (d)
		path[d++] = '/';
	memcpy(path + d, name, n + 1);
	return path;
}
