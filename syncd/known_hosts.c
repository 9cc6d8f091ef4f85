/* syncd/known_hosts.c — see syncd/known_hosts.h. Lines: [@marker] hosts type base64 [comment]. */
#include "syncd/known_hosts.h"

#include <errno.h>
#include <fnmatch.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/error.h"

#define LINE_BYTES 16384
#define TYPE_BYTES 64
#define KEYS_MAX 256

struct known_key {
	char type[TYPE_BYTES];
	bool revoked;
	uint8_t *blob;
	size_t n;
};

struct known_hosts {
	struct known_key v[KEYS_MAX];
	size_t n;
};

int known_hosts_new(struct known_hosts **ret)
{
	*ret = calloc(1, sizeof(**ret));
	return *ret ? 0 : -ENOMEM;
}

void known_hosts_free(struct known_hosts *k)
{
	for (size_t i = 0; k && i < k->n; i++)
		free(k->v[i].blob);
	free(k);
}

/* Decode base64; *ret heap, at most n * 3 / 4 bytes. -EINVAL. */
static int decode_base64(const char *text, uint8_t **ret, size_t *ret_n)
{
	size_t n = strlen(text);
	uint8_t *bytes = malloc(n / 4 * 3 + 1);
	int got;

	if (!bytes)
		return -ENOMEM;
	got = n && n % 4 == 0 ? EVP_DecodeBlock(bytes, (const unsigned char *)text, (int)n) : -1;
	if (got < 0) {
		free(bytes);
		return -EINVAL;
	}
	got -= (text[n - 1] == '=') + (text[n - 2] == '=');
	*ret = bytes;
	*ret_n = (size_t)got;
	return 0;
}

/* |1|base64 salt|base64 HMAC-SHA1(salt, name) */
static bool hashed_match(const char *field, const char *name)
{
	uint8_t mac[EVP_MAX_MD_SIZE];
	uint8_t *salt = NULL, *want = NULL;
	size_t n_salt, n_want;
	unsigned n_mac = 0;
	char copy[256], *bar;
	bool match = false;

	if (strlen(field) >= sizeof(copy))
		return false;
	strcpy(copy, field + 3);
	bar = strchr(copy, '|');
	if (!bar)
		return false;
	*bar = 0;
	if (decode_base64(copy, &salt, &n_salt) == 0 && decode_base64(bar + 1, &want, &n_want) == 0 &&
			HMAC(EVP_sha1(), salt, (int)n_salt, (const unsigned char *)name, strlen(name), mac, &n_mac))
		match = n_mac == n_want && memcmp(mac, want, n_mac) == 0;
	free(salt);
	free(want);
	return match;
}

/* OpenSSH's patterns know '*' and '?' only: what else fnmatch would take for special is escaped. */
static bool pattern_match(const char *pattern, const char *name)
{
	char escaped[1024];
	size_t at = 0;

	for (; *pattern; pattern++) {
		if (at + 3 > sizeof(escaped))
			return false;
		if (strchr("[]\\", *pattern))
			escaped[at++] = '\\';
		escaped[at++] = *pattern;
	}
	escaped[at] = 0;
	return fnmatch(escaped, name, FNM_CASEFOLD) == 0;
}

/* Comma-separated patterns; one that begins with '!' and matches rules the line out. */
static bool plain_match(char *field, const char *name)
{
	bool match = false;
	char *rest = field, *pattern;

	while ((pattern = strsep(&rest, ","))) {
		bool negated = *pattern == '!';

		if (!pattern_match(pattern + negated, name))
			continue;
		if (negated)
			return false;
		match = true;
	}
	return match;
}

/* The type is the blob's first string. */
static bool blob_type(const uint8_t *blob, size_t n, char *ret)
{
	size_t length;

	if (n < 4)
		return false;
	length = (size_t)blob[0] << 24 | (size_t)blob[1] << 16 | (size_t)blob[2] << 8 | blob[3];
	if (length > n - 4 || length >= TYPE_BYTES)
		return false;
	memcpy(ret, blob + 4, length);
	ret[length] = 0;
	return true;
}

static int add_line(struct known_hosts *k, char *line, const char *name)
{
	char *rest = line, *hosts, *type, *key;
	struct known_key *to = &k->v[k->n];
	char blobs_type[TYPE_BYTES];
	bool revoked = false;

	line[strcspn(line, "\r\n")] = 0;
	rest += strspn(rest, " \t");
	if (!*rest || *rest == '#')
		return 0;
	hosts = strsep(&rest, " \t");
	if (*hosts == '@') {
		revoked = strcmp(hosts, "@revoked") == 0;
		if (!revoked || !rest)
			return 0; /* certificate authorities are not supported: their hosts stay unknown */
		rest += strspn(rest, " \t");
		hosts = strsep(&rest, " \t");
	}
	if (rest)
		rest += strspn(rest, " \t");
	type = strsep(&rest, " \t");
	if (rest)
		rest += strspn(rest, " \t");
	key = strsep(&rest, " \t");
	if (!type || !key || !*key || strlen(type) >= TYPE_BYTES || k->n == KEYS_MAX)
		return 0;
	if (!(strncmp(hosts, "|1|", 3) == 0 ? hashed_match(hosts, name) : plain_match(hosts, name)))
		return 0;
	if (decode_base64(key, &to->blob, &to->n) < 0)
		return 0;
	if (!blob_type(to->blob, to->n, blobs_type) || strcmp(blobs_type, type) != 0) {
		free(to->blob);
		return 0;
	}
	strcpy(to->type, type);
	to->revoked = revoked;
	k->n++;
	return 0;
}

int known_hosts_read(struct known_hosts *k, const char *file, const char *host, uint16_t port)
{
	char name[512], line[LINE_BYTES];
	FILE *f = fopen(file, "re");
	bool skipping = false;

	if (!f)
		return -errno;
	if (port == 22)
		snprintf(name, sizeof(name), "%s", host);
	else
		snprintf(name, sizeof(name), "[%s]:%u", host, port);
	for (char *p = name; *p; p++)
		*p = (char)(*p >= 'A' && *p <= 'Z' ? *p + 32 : *p);
	while (fgets(line, sizeof(line), f)) {
		bool whole = strchr(line, '\n') || feof(f);

		if (whole && !skipping)
			add_line(k, line, name);
		skipping = !whole; /* a line that is too long is passed over as a whole */
	}
	fclose(f);
	return 0;
}

int known_hosts_check(const struct known_hosts *k, const void *blob, size_t n)
{
	int r = KNOWN_HOSTS_UNKNOWN;
	char type[TYPE_BYTES];

	if (!blob_type(blob, n, type))
		return -EINVAL;
	for (size_t i = 0; i < k->n; i++) {
		const struct known_key *key = &k->v[i];
		bool same = key->n == n && memcmp(key->blob, blob, n) == 0;

		if (key->revoked && same)
			return KNOWN_HOSTS_REVOKED;
		if (key->revoked || strcmp(key->type, type) != 0)
			continue;
		if (same)
			r = 0;
		else if (r != 0)
			r = KNOWN_HOSTS_MISMATCH;
	}
	return r;
}

const char *known_hosts_type(const struct known_hosts *k, size_t i)
{
	for (size_t at = 0; at < k->n; at++) {
		bool seen = k->v[at].revoked;

		for (size_t before = 0; before < at && !seen; before++)
			seen = !k->v[before].revoked && strcmp(k->v[before].type, k->v[at].type) == 0;
		if (!seen && i-- == 0)
			return k->v[at].type;
	}
	return NULL;
}
