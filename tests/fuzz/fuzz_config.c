/*
 * tests/fuzz/fuzz_config.c — any bytes as syncd.conf: no crash, no leak; refused exactly when something was complained of, and
 * each complaint is one line that says where.
 */
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "syncd/config.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

struct heard {
	const char *file;
	size_t n;
};

static void hear(const char *line, void *data)
{
	struct heard *h = data;
	unsigned number;

	h->n++;
	if (strncmp(line, h->file, strlen(h->file)) != 0 || sscanf(line + strlen(h->file), ":%u: ", &number) != 1 || !number)
		abort();
	if (strchr(line, '\n') || strchr(line, '\x1b'))
		abort();
}

static void check(const struct config *c)
{
	for (size_t i = 0; i < c->n_folders; i++)
		if (!c->folders[i].name || !c->folders[i].path || c->folders[i].path[0] != '/' || strchr(c->folders[i].name, '/') ||
				config_find_folder(c, c->folders[i].name) != &c->folders[i])
			abort();
	for (size_t i = 0; i < c->n_peers; i++)
		if (!c->peers[i].name || !c->peers[i].address || !config_find_folder(c, c->peers[i].folder))
			abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	char file[64];
	struct heard heard = {.file = file};
	struct config *config = NULL;
	int fd = memfd_create("config", MFD_CLOEXEC), r;

	if (fd < 0 || n > 65536 || write(fd, data, n) != (ssize_t)n)
		abort();
	snprintf(file, sizeof(file), "/proc/self/fd/%d", fd);
	r = config_load(&config, file, hear, &heard);
	if (r == 0 ? heard.n != 0 || !config : r != -EINVAL || heard.n == 0 || config)
		abort();
	if (r == 0)
		check(config);
	config_free(config);
	close(fd);
	return 0;
}
