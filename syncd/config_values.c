/*
 * syncd/config_values.c — see syncd/config.h and syncd/config_internal.h.
 */
#include "syncd/config_internal.h"

#include <errno.h>
#include <limits.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

#include "base/error.h"

#define SOCKET_BYTES_MAX 107 /* sun_path */

/* What text begins with; *ret_rest: what follows, without the white space before it. */
static int parse_digits(const char *text, uint64_t *ret, const char **ret_rest)
{
	uint64_t number = 0;
	const char *p = text;

	for (; *p >= '0' && *p <= '9'; p++)
		if (__builtin_mul_overflow(number, UINT64_C(10), &number) ||
				__builtin_add_overflow(number, (uint64_t)(*p - '0'), &number))
			return -ERANGE;
	if (p == text)
		return -EINVAL;
	*ret = number;
	*ret_rest = p + strspn(p, " \t");
	return 0;
}

/* The same; "off" is 0. */
static int parse_limit(const char *text, uint64_t *ret, const char **ret_rest)
{
	return parse_digits(strcmp(text, "off") == 0 ? "0" : text, ret, ret_rest);
}

int config_parse_duration(const char *text, int64_t *ret_ms)
{
	static const struct {
		const char *unit;
		int64_t ms;
	} units[] = {{"ms", 1}, {"s", SECOND_MS}, {"min", 60 * SECOND_MS}, {"h", HOUR_MS}, {"d", DAY_MS}};
	uint64_t digits;
	int64_t number;
	const char *p;
	int r = parse_digits(text, &digits, &p);

	if (r < 0)
		return r;
	if (!*p && digits == 0) {
		*ret_ms = 0;
		return 0;
	}
	for (size_t i = 0; i < ARRAY_SIZE(units); i++) {
		if (strcmp(p, units[i].unit) != 0)
			continue;
		if (__builtin_mul_overflow(digits, units[i].ms, &number))
			return -ERANGE;
		*ret_ms = number;
		return 0;
	}
	return -EINVAL;
}

int config_parse_size(const char *text, uint64_t *ret_bytes)
{
	static const char units[] = "KMGT";
	uint64_t number;
	const char *p, *unit;
	int r = parse_digits(text, &number, &p);

	if (r < 0)
		return r;
	if (*p) {
		unit = strchr(units, *p);
		if (!unit || p[1])
			return -EINVAL;
		if (__builtin_mul_overflow(number, UINT64_C(1) << (10 * (unit - units + 1)), &number))
			return -ERANGE;
	}
	*ret_bytes = number;
	return 0;
}

int config_parse_rate(const char *text, uint64_t *ret_bytes_per_s)
{
	static const struct {
		const char *unit;
		uint64_t bits;
	} units[] = {{"B", 8}, {"K", 8 << 10}, {"KiB", 8 << 10}, {"KB", 8000}, {"kB", 8000}, {"kbit", 1000},
		{"M", 8 << 20}, {"MiB", 8 << 20}, {"MB", 8000000}, {"Mbit", 1000000},
		{"G", UINT64_C(8) << 30}, {"GiB", UINT64_C(8) << 30}, {"GB", UINT64_C(8000000000)}, {"Gbit", 1000000000}};
	uint64_t number;
	const char *p;
	size_t n;
	int r = parse_limit(text, &number, &p);

	if (r < 0)
		return r;
	if (!*p && number == 0) {
		*ret_bytes_per_s = 0;
		return 0;
	}
	n = strlen(p);
	if (n > 2 && strcmp(p + n - 2, "/s") == 0)
		n -= 2;
	for (size_t i = 0; i < ARRAY_SIZE(units); i++) {
		if (strlen(units[i].unit) != n || strncmp(p, units[i].unit, n) != 0)
			continue;
		if (__builtin_mul_overflow(number, units[i].bits, &number))
			return -ERANGE;
		number /= 8;
		if (number && (number < CONFIG_RATE_MIN || number > CONFIG_RATE_MAX))
			return -ERANGE;
		*ret_bytes_per_s = number;
		return 0;
	}
	return -EINVAL;
}

int config_parse_percent(const char *text, unsigned *ret)
{
	uint64_t number;
	const char *p;
	int r = parse_limit(text, &number, &p);

	if (r < 0)
		return r;
	if (strcmp(p, "%") != 0 && (*p || number))
		return -EINVAL;
	if (number > CONFIG_PERCENT_MAX)
		return -ERANGE;
	*ret = (unsigned)number;
	return 0;
}

int config_value_text(const struct config_key *key, const char *value, void *to, size_t *to_n, const char **ret_why)
{
	char *copy = strdup(value);

	(void)key;
	(void)to_n;
	(void)ret_why;
	if (!copy)
		return -ENOMEM;
	free(*(char **)to);
	*(char **)to = copy;
	return 0;
}

/* One slash between names, none at the end. */
static void tidy_slashes(char *path)
{
	char *to = path;

	for (const char *from = path; *from; from++)
		if (*from != '/' || to == path || to[-1] != '/')
			*to++ = *from;
	if (to > path + 1 && to[-1] == '/')
		to--;
	*to = 0;
}

/* Absolute, "~/" resolved. */
int config_value_path(const struct config_key *key, const char *value, void *to, size_t *to_n, const char **ret_why)
{
	const char *home = getenv("HOME");
	const struct passwd *pw;
	char path[PATH_MAX];
	int n;

	if (strncmp(value, "~/", 2) == 0) {
		pw = home && *home ? NULL : getpwuid(getuid());
		home = pw ? pw->pw_dir : home;
		if (!home || *home != '/') {
			*ret_why = "there is no home directory that ~ could stand for: write the whole path, from /";
			return -EINVAL;
		}
		n = snprintf(path, sizeof(path), "%s%s", home, value + 1);
	} else {
		n = snprintf(path, sizeof(path), "%s", value);
	}
	if (*path != '/') {
		*ret_why = "it is not an absolute path: write it from / or ~/, without quotation marks";
		return -EINVAL;
	}
	if (n < 0 || (size_t)n >= sizeof(path)) {
		*ret_why = "the path is too long: choose a shorter one";
		return -EINVAL;
	}
	tidy_slashes(path);
	return config_value_text(key, path, to, to_n, ret_why);
}

int config_value_socket(const struct config_key *key, const char *value, void *to, size_t *to_n, const char **ret_why)
{
	if (strlen(value) > SOCKET_BYTES_MAX) {
		*ret_why = "a socket's path has 107 bytes at most: choose a shorter one";
		return -EINVAL;
	}
	return config_value_path(key, value, to, to_n, ret_why);
}

static const struct config_word *find_word(const struct config_word *words, const char *text)
{
	for (; words->text; words++)
		if (strcmp(words->text, text) == 0)
			return words;
	return NULL;
}

int config_value_words(const struct config_key *key, const char *value, void *to, size_t *to_n, const char **ret_why)
{
	const struct config_word *word = find_word(key->words, value);

	(void)to_n;
	(void)ret_why;
	if (!word)
		return -EINVAL;
	memcpy(to, &word->value, sizeof(word->value)); /* an enum or an int */
	return 0;
}

int config_value_flag(const struct config_key *key, const char *value, void *to, size_t *to_n, const char **ret_why)
{
	const struct config_word *word = find_word(key->words, value);

	(void)to_n;
	(void)ret_why;
	if (!word)
		return -EINVAL;
	*(bool *)to = word->value;
	return 0;
}

int config_value_time(const struct config_key *key, const char *value, void *to, size_t *to_n, const char **ret_why)
{
	int64_t ms = 0;
	int r = config_parse_duration(value, &ms);

	(void)to_n;
	if (r == -ERANGE || (r == 0 && ms > key->max)) {
		*ret_why = key->max == HOUR_MS ? "it is too long: 1 h at most" : "it is too long: 36500 d at most";
		return -EINVAL;
	}
	if (r < 0) {
		*ret_why = "it is not a duration: write a number with ms, s, min, h or d, like 10 min";
		return -EINVAL;
	}
	if (ms < key->min) {
		*ret_why = "it is too short: 100 ms at least";
		return -EINVAL;
	}
	*(int64_t *)to = ms;
	return 0;
}

int config_value_bytes(const struct config_key *key, const char *value, void *to, size_t *to_n, const char **ret_why)
{
	int r = config_parse_size(value, to);

	(void)key;
	(void)to_n;
	*ret_why = r == -ERANGE ? "it is too large: write a smaller one"
				: "it is not a size: write a number of bytes, or one with K, M, G or T, like 20 G";
	return r < 0 ? -EINVAL : 0;
}

int config_value_rate(const struct config_key *key, const char *value, void *to, size_t *to_n, const char **ret_why)
{
	int r = config_parse_rate(value, to);

	(void)key;
	(void)to_n;
	*ret_why = r == -ERANGE ? "it is out of range: 1 KiB/s at least, 1024 GiB/s at most, or off"
				: "it is not a rate: write a number with a unit, like 500 KiB/s, 2 MB/s or 10 Mbit/s, or off";
	return r < 0 ? -EINVAL : 0;
}

int config_value_percent(const struct config_key *key, const char *value, void *to, size_t *to_n, const char **ret_why)
{
	int r = config_parse_percent(value, to);

	(void)key;
	(void)to_n;
	*ret_why = r == -ERANGE ? "it is too much: 100000 % at most"
				: "it is not a share of a processor: write a number with %, like 25 %, or off";
	return r < 0 ? -EINVAL : 0;
}

int config_value_number(const struct config_key *key, const char *value, void *to, size_t *to_n, const char **ret_why)
{
	uint64_t number;
	const char *rest;
	int r = parse_limit(value, &number, &rest);

	(void)key;
	(void)to_n;
	*ret_why = "it is not a number up to 1000000: write one, or off";
	if (r < 0 || *rest || number > 1000000)
		return -EINVAL;
	*(unsigned *)to = (unsigned)number;
	return 0;
}

void config_free_list(char **list, size_t n)
{
	for (size_t i = 0; i < n; i++)
		free(list[i]);
	free(list);
}

/* Words with commas or spaces between them. */
int config_value_list(const struct config_key *key, const char *value, void *to, size_t *to_n, const char **ret_why)
{
	static const char between[] = ", \t";
	char **list = NULL;
	size_t n = 0, cap = 0, length;
	int r = 0;

	(void)key;
	for (const char *p = value + strspn(value, between); *p; p += length + strspn(p + length, between)) {
		length = strcspn(p, between);
		r = array_reserve(&list, &cap, n + 1, sizeof(*list));
		if (r == 0 && !(list[n] = strndup(p, length)))
			r = -ENOMEM;
		if (r < 0) {
			config_free_list(list, n);
			return r;
		}
		n++;
	}
	if (!n) {
		*ret_why = "the list is empty: name one at least, or leave the line out";
		return -EINVAL;
	}
	config_free_list(*(char ***)to, *to_n);
	*(char ***)to = list;
	*to_n = n;
	return 0;
}

/* A list of replica ids. */
int config_value_ids(const struct config_key *key, const char *value, void *to, size_t *to_n, const char **ret_why)
{
	char **list;
	int r = config_value_list(key, value, to, to_n, ret_why);

	list = *(char ***)to;
	for (size_t i = 0; r == 0 && i < *to_n; i++)
		if (strlen(list[i]) != 16 || strspn(list[i], "0123456789abcdefABCDEF") != 16) {
			*ret_why = "a member is named by its replica id, 16 hexadecimal digits: syncctl status --json shows them";
			r = -EINVAL;
		}
	return r;
}
