/*
 * syncd — the daemon.
 *
 *   syncd [-c FILE] [-s SOCKET] [-S STATE_DIR] [-v]
 *
 * It stays in the foreground and logs to standard error: a service manager does the rest.
 */
#include <errno.h>
#include <getopt.h>
#include <malloc.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/error.h"
#include "base/file.h"
#include "base/log.h"
#include "syncd/config.h"
#include "syncd/control.h"
#include "syncd/daemon.h"
#include "syncd/exit_codes.h"

#define DEFAULT_CONFIG "/etc/syncd/syncd.conf"

static const struct option options[] = {
	{"config", required_argument, NULL, 'c'},
	{"socket", required_argument, NULL, 's'},
	{"state", required_argument, NULL, 'S'},
	{"verbose", no_argument, NULL, 'v'},
	{"version", no_argument, NULL, 'V'},
	{"help", no_argument, NULL, 'h'},
	{0},
};

static const char usage[] = "usage: syncd [--config FILE] [--socket PATH] [--state DIR] [--verbose]\n";

static void print_line(const char *line, void *data)
{
	(void)data;
	log_error("%s", line);
}

/* Where what is known outside of the folders is kept. */
static void default_state_dir(char *ret, size_t n)
{
	const char *home = getenv("HOME"), *state = getenv("XDG_STATE_HOME");

	if (geteuid() == 0)
		snprintf(ret, n, "/var/lib/syncd");
	else if (state && *state)
		snprintf(ret, n, "%s/syncd", state);
	else
		snprintf(ret, n, "%s/.local/state/syncd", home ? home : "/tmp");
}

int main(int argc, char **argv)
{
	const char *file = DEFAULT_CONFIG, *socket = NULL, *state = NULL;
	char socket_default[108], state_default[4096];
	struct config *config = NULL;
	bool verbose = false;
	int c, r, code;

	log_set_name("syncd");
	signal(SIGPIPE, SIG_IGN);
	/* Many short-lived buffers on several threads: without this what they leave stays with the process. */
	mallopt(M_ARENA_MAX, 2);
	mallopt(M_MMAP_THRESHOLD, 128 * 1024);
	mallopt(M_TRIM_THRESHOLD, 512 * 1024);
	while ((c = getopt_long(argc, argv, "c:s:S:vVh", options, NULL)) != -1) {
		if (c == 'c')
			file = optarg;
		else if (c == 's')
			socket = optarg;
		else if (c == 'S')
			state = optarg;
		else if (c == 'v')
			verbose = true;
		else if (c == 'V')
			return printf("syncd %s\n", SYNCD_VERSION) < 0;
		else {
			fputs(usage, c == 'h' ? stdout : stderr);
			return c == 'h' ? EXIT_IN_SYNC : EXIT_USAGE;
		}
	}
	if (optind != argc) {
		fputs(usage, stderr);
		return EXIT_USAGE;
	}
	r = config_load(&config, file, print_line, NULL);
	if (r < 0) {
		if (r != -EINVAL)
			log_error("cannot read the configuration %s: %s", file, file_error_text(r));
		return EXIT_CONFIG;
	}
	log_set_level(verbose ? LOG_LEVEL_DEBUG : (enum log_level)config->log_level);
	control_default_socket(socket_default, sizeof(socket_default));
	default_state_dir(state_default, sizeof(state_default));
	code = daemon_run(config, socket ? socket : config->socket ? config->socket : socket_default, state ? state : state_default, NULL);
	config_free(config);
	return code;
}
