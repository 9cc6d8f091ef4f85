/*
 * tests/fuzz/fuzz_known_hosts.c — any bytes as known_hosts: no crash, and a key is the host's only if its type is known for it.
 */
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "syncd/known_hosts.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static void ask(const char *file, const char *host, uint16_t port)
{
	static const uint8_t key[4 + 11 + 4 + 32] = "\0\0\0\x0bssh-ed25519\0\0\0\x20";
	struct known_hosts *k;
	bool known = false;
	int r;

	if (known_hosts_new(&k) < 0)
		abort();
	if (known_hosts_read(k, file, host, port) < 0)
		abort();
	for (size_t i = 0; known_hosts_type(k, i); i++) {
		if (!*known_hosts_type(k, i))
			abort();
		known = known || strcmp(known_hosts_type(k, i), "ssh-ed25519") == 0;
	}
	r = known_hosts_check(k, key, sizeof(key));
	if (r < 0 || ((r == 0 || r == KNOWN_HOSTS_MISMATCH) && !known))
		abort();
	for (size_t i = 0; i < sizeof(key); i++)
		(void)known_hosts_check(k, key, i);
	known_hosts_free(k);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	int fd = memfd_create("known_hosts", MFD_CLOEXEC);
	char file[64];

	if (fd < 0 || write(fd, data, n) != (ssize_t)n)
		abort();
	snprintf(file, sizeof(file), "/proc/self/fd/%d", fd);
	ask(file, "host.example", 22);
	ask(file, "host.example", 2222);
	ask(file, "::1", 22);
	close(fd);
	return 0;
}
