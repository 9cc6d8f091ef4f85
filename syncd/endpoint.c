/* syncd/endpoint.c — see syncd/endpoint.h. */
#include "syncd/endpoint.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/error.h"

void endpoint_deinit(struct endpoint *e)
{
	free(e->user);
	free(e->host);
	free(e->path);
	*e = (struct endpoint){0};
}

/* [user@]host, with host in brackets where it is an IPv6 address. text[0 … n) */
static int parse_host(struct endpoint *e, const char *text, size_t n, const char **why)
{
	const char *at = memrchr(text, '@', n);

	if (at) {
		e->user = strndup(text, (size_t)(at - text));
		n -= (size_t)(at + 1 - text);
		text = at + 1;
		if (!e->user)
			return -ENOMEM;
		if (!*e->user || *e->user == '-') {
			*why = "the user's name is empty or begins with '-'";
			return -EINVAL;
		}
	}
	if (n >= 2 && text[0] == '[' && text[n - 1] == ']') {
		text++;
		n -= 2;
	}
	if (!n || *text == '-' || memchr(text, ' ', n)) {
		*why = "the host's name is empty, begins with '-', or has a space";
		return -EINVAL;
	}
	e->host = strndup(text, n);
	return e->host ? 0 : -ENOMEM;
}

static int parse_port(struct endpoint *e, const char *digits, size_t n, const char **why)
{
	unsigned long port = 0;

	for (size_t i = 0; i < n; i++) {
		if (digits[i] < '0' || digits[i] > '9' || port > 65535) {
			port = 0;
			break;
		}
		port = port * 10 + (unsigned long)(digits[i] - '0');
	}
	if (!port || port > 65535) {
		*why = "the port is not a number from 1 to 65535";
		return -EINVAL;
	}
	e->port = (uint16_t)port;
	return 0;
}

/* ssh://[user@]host[:port]/PATH */
static int parse_url(struct endpoint *e, const char *text, const char **why)
{
	const char *slash = strchr(text, '/'), *colon;
	size_t n = slash ? (size_t)(slash - text) : 0, host;
	int r;

	if (!slash) {
		*why = "an ssh:// address needs a path: ssh://host/PATH";
		return -EINVAL;
	}
	colon = memrchr(text, ':', n);
	if (colon && memchr(colon, ']', n - (size_t)(colon - text)))
		colon = NULL; /* inside the brackets */
	host = colon ? (size_t)(colon - text) : n;
	r = parse_host(e, text, host, why);
	if (r == 0 && colon)
		r = parse_port(e, colon + 1, n - host - 1, why);
	if (r < 0)
		return r;
	if (strncmp(slash, "/~/", 3) == 0)
		slash++;
	e->path = strdup(slash);
	return e->path ? 0 : -ENOMEM;
}

/* The colon of host:PATH, NULL if text is a path: no colon, or a '/' before it. Brackets may hold colons. */
static const char *host_colon(const char *text)
{
	const char *start = strrchr(text, ']'), *colon = strchr(text, ':'), *slash = strchr(text, '/');

	if (colon && start && text + strcspn(text, "[") < colon && start[1] == ':' && (!slash || start < slash))
		colon = start + 1;
	return colon && (!slash || colon < slash) ? colon : NULL;
}

int endpoint_parse(struct endpoint *ret, const char *text, const char **ret_why)
{
	struct endpoint e = {0};
	const char *colon;
	int r = 0;

	*ret_why = "out of memory";
	if (!*text) {
		*ret_why = "it is empty";
		return -EINVAL;
	}
	if (strncmp(text, "ssh://", 6) == 0) {
		e.remote = true;
		r = parse_url(&e, text + 6, ret_why);
	} else if ((colon = host_colon(text))) {
		e.remote = true;
		r = parse_host(&e, text, (size_t)(colon - text), ret_why);
		if (r == 0 && !(e.path = strdup(colon[1] ? colon + 1 : ".")))
			r = -ENOMEM;
	} else if (!(e.path = strdup(text))) {
		r = -ENOMEM;
	}
	if (r < 0) {
		endpoint_deinit(&e);
		return r;
	}
	*ret = e;
	return 0;
}

/* Without slashes at the end, and "./" in front of a relative one. */
static char *plain_path(const char *path)
{
	size_t n;

	while (strncmp(path, "./", 2) == 0)
		for (path++; *path == '/'; path++)
			;
	for (n = strlen(path); n > 1 && path[n - 1] == '/'; n--)
		;
	return strndup(n ? path : ".", n ? n : 1);
}

char *endpoint_address(const struct endpoint *e)
{
	cleanup_free char *path = plain_path(e->path), *cwd = NULL;
	const char *user = e->user ? e->user : "", *at = e->user ? "@" : "", *open = "", *close = "";
	char *ret = NULL;
	int n;

	if (!path)
		return NULL;
	if (!e->remote) {
		cwd = *path == '/' || *path == '~' ? strdup("") : getcwd(NULL, 0);
		n = cwd ? asprintf(&ret, "%s%s%s", cwd, *cwd ? "/" : "", path) : -1;
		return n < 0 ? NULL : ret;
	}
	if (strchr(e->host, ':')) {
		open = "[";
		close = "]";
	}
	if (e->port)
		n = asprintf(&ret, "ssh://%s%s%s%s%s:%u%s%s", user, at, open, e->host, close, e->port,
			*path == '/' ? "" : strncmp(path, "~/", 2) == 0 ? "/" : "/~/", path);
	else
		n = asprintf(&ret, "%s%s%s%s%s:%s", user, at, open, e->host, close, path);
	return n < 0 ? NULL : ret;
}
