/* syncctl — the operator's command: one-shot reconciliation, the far end of a session, and questions to the daemon. */
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "base/error.h"
#include "base/log.h"
#include "syncd/commands.h"
#include "syncd/exit_codes.h"
#include "transfer/frame.h"

static int cmd_version(int argc, char **argv)
{
	(void)argc;
	(void)argv;
	printf("syncctl %s (protocol %d to %d, index format %d)\n", SYNCD_VERSION, FRAME_VERSION_MIN, FRAME_VERSION_MAX, INDEX_FORMAT);
	return EXIT_IN_SYNC;
}

static const struct {
	const char *name;
	int (*run)(int argc, char **argv);
	const char *arguments;
	const char *does;
} commands[] = {
	{"reconcile", cmd_reconcile, "[options] A B", "make two replicas equal, once"},
	{"status", cmd_status, "[--json] [FOLDER|PATH]", "what is in sync, what is not, since when, why, what to do"},
	{"scan", cmd_scan, "[FOLDER]", "look at the whole folder now"},
	{"flush", cmd_flush, "[FOLDER]", "wait until all changes up to now are at all connected peers"},
	{"purge", cmd_purge, "[--json] [FOLDER|PATH]", "forget deletions that all know of, and empty old trash, now"},
	{"confirm", cmd_confirm, "FOLDER", "let deletions pass that were held"},
	{"conflicts", cmd_conflicts, "[--json] [FOLDER|PATH]", "list conflict copies"},
	{"trash", cmd_trash, "list|restore [FOLDER|PATH] [NAME]", "what was replaced or deleted, and bring it back"},
	{"peer", cmd_peer, "retire FOLDER MEMBER", "do not wait for a member any more"},
	{"serve", cmd_serve, "[options]", "the far end of a session, on standard input and output"},
	{"check-config", cmd_check_config, "[FILE]", "check a configuration file"},
	{"version", cmd_version, "", "print the version"},
};

static void usage(FILE *to)
{
	fputs("usage: syncctl COMMAND …\n\n", to);
	for (size_t i = 0; i < ARRAY_SIZE(commands); i++)
		fprintf(to, "  %-12s %-34s %s\n", commands[i].name, commands[i].arguments, commands[i].does);
	fputs("\nReplicas: PATH, [user@]host:PATH, ssh://[user@]host[:port]/PATH, or a configured folder. See syncctl(1).\n", to);
}

int main(int argc, char **argv)
{
	log_set_name("syncctl");
	signal(SIGPIPE, SIG_IGN);
	if (argc < 2) {
		usage(stderr);
		return EXIT_USAGE;
	}
	if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0 || strcmp(argv[1], "help") == 0) {
		usage(stdout);
		return EXIT_IN_SYNC;
	}
	if (strcmp(argv[1], "--version") == 0)
		return cmd_version(0, NULL);
	for (size_t i = 0; i < ARRAY_SIZE(commands); i++)
		if (strcmp(argv[1], commands[i].name) == 0)
			return commands[i].run(argc - 1, argv + 1);
	log_error("no command %s; syncctl --help lists them", quoted(argv[1]));
	return EXIT_USAGE;
}
