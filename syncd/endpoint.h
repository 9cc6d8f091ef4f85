/*
 * syncd/endpoint.h — how people name a replica:
 *
 *   PATH  ./PATH  /PATH              a directory on this machine (a path with ':' needs a '/' before the colon)
 *   [user@]host:PATH  [user@][v6]:PATH
 *   ssh://[user@]host[:port]/PATH    the path is absolute; /~/PATH is below the home directory
 *   NAME, [user@]host:NAME           a configured folder of that side, where there is one of that name and no such directory
 *                                    (below the home directory)
 */
#ifndef SYNCD_ENDPOINT_H
#define SYNCD_ENDPOINT_H

#include <stdbool.h>
#include <stdint.h>

struct endpoint {
	bool remote;
	char *user; /* NULL: none given */
	char *host;
	uint16_t port; /* 0: none given */
	char *path;    /* as the far side is to open it */
};

/* -EINVAL with a reason for people in *ret_why (static text). A host may not begin with '-'. */
int endpoint_parse(struct endpoint *ret, const char *text, const char **ret_why);
/* The same place as people may write it, wherever they are: /PATH, [user@]host:PATH or ssh://…; heap, NULL: out of memory. Other
 * spellings of a path, links and names of hosts are not looked through. */
char *endpoint_address(const struct endpoint *e);
void endpoint_deinit(struct endpoint *e);

#endif
