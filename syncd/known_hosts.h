/*
 * syncd/known_hosts.h — OpenSSH's known_hosts, parsed here: libssh2's parser over-reads malformed lines, and the key types
 * that are known for a host must be asked for first.
 */
#ifndef SYNCD_KNOWN_HOSTS_H
#define SYNCD_KNOWN_HOSTS_H

#include <stddef.h>
#include <stdint.h>

enum known_hosts_outcome {
	KNOWN_HOSTS_UNKNOWN = 1, /* no key of this type is known for the host */
	KNOWN_HOSTS_MISMATCH,	 /* another key of this type is known */
	KNOWN_HOSTS_REVOKED,	 /* this very key is marked @revoked */
};

struct known_hosts;

int known_hosts_new(struct known_hosts **ret);
void known_hosts_free(struct known_hosts *k);
/* Add the lines of a file that are about this host and port. A missing file is fine (-ENOENT); lines that cannot be understood
 * are passed over. */
int known_hosts_read(struct known_hosts *k, const char *file, const char *host, uint16_t port);
/* Is the key (SSH wire blob) the host's? 0 yes, or an outcome. */
int known_hosts_check(const struct known_hosts *k, const void *blob, size_t n);
/* The i-th distinct key type known for the host ("ssh-ed25519" …), NULL past the end. */
const char *known_hosts_type(const struct known_hosts *k, size_t i);

#endif
