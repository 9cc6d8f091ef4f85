/*
 * syncctl status, scan, flush, purge, confirm, conflicts, trash, peer, check-config — questions and orders for the daemon; where the name
 * is a path that no daemon has, the replica there is opened and asked itself.
 */
#include <errno.h>
#include <getopt.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/error.h"
#include "base/log.h"
#include "syncd/commands.h"
#include "syncd/config.h"
#include "syncd/exit_codes.h"
#include "syncd/report.h"
#include "syncd/ui.h"


struct ask {
	const char *command;
	const char *usage;
	const char *socket;
	bool json;
	char **words; /* what is left after the options */
	int n;
};

static const struct option options[] = {
	{"json", no_argument, NULL, 'j'},
	{"socket", required_argument, NULL, 's'},
	{"help", no_argument, NULL, 'h'},
	{0},
};

/* 0: go on; else the exit code, in *ret_code. */
static bool parse(struct ask *a, int argc, char **argv, int least, int most, int *ret_code)
{
	int c;

	while ((c = getopt_long(argc, argv, "js:h", options, NULL)) != -1) {
		if (c == 'j') {
			a->json = true;
		} else if (c == 's') {
			a->socket = optarg;
		} else {
			fprintf(c == 'h' ? stdout : stderr, "usage: syncctl %s\n", a->usage);
			*ret_code = c == 'h' ? EXIT_IN_SYNC : EXIT_USAGE;
			return false;
		}
	}
	a->words = argv + optind;
	a->n = argc - optind;
	if (a->n >= least && a->n <= most)
		return true;
	fprintf(stderr, "usage: syncctl %s\n", a->usage);
	*ret_code = EXIT_USAGE;
	return false;
}

/* Is the word a directory with a replica that no process has? Then its path. */
static bool is_free_replica(const char *word, char *path)
{
	char state[PATH_MAX + 16], *holder = NULL;
	struct stat st;
	int64_t pid;
	bool held;

	if (!word || command_absolute(word, path, PATH_MAX) < 0)
		return false;
	snprintf(state, sizeof(state), "%s/" PATH_STATE_NAME, path);
	if (stat(state, &st) < 0 || !S_ISDIR(st.st_mode))
		return false;
	held = store_lock_holder(path, &pid, &holder) == 0;
	free(holder);
	return !held;
}

struct local {
	struct folder *folder;
	uv_loop_t loop;
};

static void on_closed(void *data)
{
	((struct local *)data)->folder = NULL;
}

/* Open the replica at path without scanning it; prints why not. */
static int local_open(struct local *l, const char *path)
{
	struct folder_options o;
	char why[1024] = "";
	int r = command_loop(&l->loop);

	if (r != 0)
		return r;
	command_folder_options(&o, &l->loop, path);
	r = folder_open(&l->folder, &o, why, sizeof(why));
	if (r != 0) {
		log_error("%s", why);
		uv_loop_close(&l->loop);
	}
	return r == 0 ? 0 : ui_exit_of_store(r);
}

/* Wait for the first scan. */
static void local_scan(struct local *l)
{
	while (!folder_ready(l->folder) && !folder_halted(l->folder) && store_joined(replica_store(folder_replica(l->folder))))
		uv_run(&l->loop, UV_RUN_ONCE);
}

static void local_close(struct local *l)
{
	folder_close(l->folder, on_closed, l);
	uv_run(&l->loop, UV_RUN_DEFAULT);
	uv_loop_close(&l->loop);
}

static json_t *request_for(const struct ask *a)
{
	json_t *request = json_pack("{s:s}", "command", a->command);
	char path[PATH_MAX];

	if (!a->n)
		return request;
	json_object_set_new(request, "folder", json_string(a->words[0]));
	if (strchr(a->words[0], '/') && command_absolute(a->words[0], path, sizeof(path)) == 0)
		json_object_set_new(request, "folder", json_string(path));
	return request;
}

static int print_json(json_t *answer)
{
	json_dumpf(answer, stdout, JSON_INDENT(2));
	putchar('\n');
	json_decref(answer);
	return EXIT_IN_SYNC;
}

/* The exit code that a status means: the worst of its folders. */
static int exit_of_status(const json_t *status)
{
	const json_t *f;
	size_t i;
	int code = EXIT_IN_SYNC;

	json_array_foreach(json_object_get(status, "folders"), i, f) {
		const char *state = json_string_value(json_object_get(f, "state"));

		if (state && strcmp(state, "halted") == 0)
			return EXIT_HALTED;
		if (json_integer_value(json_object_get(f, "held")))
			code = EXIT_HELD;
		else if (json_integer_value(json_object_get(f, "problems")) && code == EXIT_IN_SYNC)
			code = EXIT_PARTIAL;
	}
	return code;
}

int cmd_status(int argc, char **argv)
{
	struct ask a = {.command = "status", .usage = "status [--json] [FOLDER|PATH]"};
	char path[PATH_MAX];
	struct local l = {0};
	json_t *answer = NULL;
	int code;

	if (!parse(&a, argc, argv, 0, 1, &code))
		return code;
	if (a.n && is_free_replica(a.words[0], path)) {
		code = local_open(&l, path);
		if (code)
			return code;
		local_scan(&l);
		answer = json_pack("{s:s, s:[o]}", "version", SYNCD_VERSION, "folders", folder_status_json(l.folder));
		local_close(&l);
	} else {
		code = command_call(command_socket(a.socket), request_for(&a), NULL, 0, &answer);
		if (code)
			return code;
	}
	code = exit_of_status(answer);
	if (a.json)
		print_json(answer);
	else {
		ui_print_status(answer);
		json_decref(answer);
	}
	return code;
}

static int order(const char *command, const char *usage, int argc, char **argv, int least)
{
	struct ask a = {.command = command, .usage = usage};
	json_t *answer = NULL;
	int code;

	if (!parse(&a, argc, argv, least, 1, &code))
		return code;
	code = command_call(command_socket(a.socket), request_for(&a), NULL, 0, &answer);
	json_decref(answer);
	return code;
}

int cmd_scan(int argc, char **argv)
{
	return order("scan", "scan [FOLDER]", argc, argv, 0);
}

int cmd_flush(int argc, char **argv)
{
	return order("flush", "flush [FOLDER]", argc, argv, 0);
}

int cmd_confirm(int argc, char **argv)
{
	return order("confirm", "confirm FOLDER", argc, argv, 1);
}

/* An answer from the daemon, or from the replica itself where nobody has it. */
static int ask_either(struct ask *a, json_t *(*local)(struct local *l, const struct ask *a), json_t **ret)
{
	char path[PATH_MAX];
	struct local l = {0};
	json_t *request;
	int code;

	if (!a->n || !is_free_replica(a->words[0], path)) {
		request = request_for(a);
		if (a->n > 1)
			json_object_set_new(request, "name", json_string(a->words[1]));
		return command_call(command_socket(a->socket), request, NULL, 0, ret);
	}
	code = local_open(&l, path);
	if (code)
		return code;
	*ret = local(&l, a);
	local_close(&l);
	if (!json_object_get(*ret, "error"))
		return 0;
	log_error("%s", json_string_value(json_object_get(*ret, "error")));
	code = (int)json_integer_value(json_object_get(*ret, "code"));
	json_decref(*ret);
	return code;
}

static json_t *local_conflicts(struct local *l, const struct ask *a)
{
	(void)a;
	local_scan(l);
	return report_conflicts(folder_replica(l->folder));
}

static json_t *local_trash_list(struct local *l, const struct ask *a)
{
	(void)a;
	return report_trash(replica_store(folder_replica(l->folder)));
}

static json_t *local_trash_restore(struct local *l, const struct ask *a)
{
	return report_restore(replica_store(folder_replica(l->folder)), a->words[1], NULL);
}

static void on_purged(const struct folder_upkeep *u, void *data)
{
	*(struct folder_upkeep *)data = *u;
}

static json_t *local_purge(struct local *l, const struct ask *a)
{
	struct folder_upkeep u = {.left = UINT64_MAX};

	local_scan(l);
	u.error = folder_upkeep(l->folder, on_purged, &u);
	while (u.error == 0 && u.left == UINT64_MAX)
		uv_run(&l->loop, UV_RUN_ONCE);
	return report_upkeep(a->words[0], &u);
}

static void print_list(const json_t *answer, const char *key, const char *first, const char *second)
{
	const json_t *item;
	char size[16];
	size_t i;

	json_array_foreach(json_object_get(answer, key), i, item) {
		printf("%-14s %10s  %s\n", json_string_value(json_object_get(item, second)),
			ui_bytes((uint64_t)json_integer_value(json_object_get(item, "size")), size),
			quoted(json_string_value(json_object_get(item, first))));
	}
}

int cmd_conflicts(int argc, char **argv)
{
	struct ask a = {.command = "conflicts", .usage = "conflicts [--json] [FOLDER|PATH]"};
	const json_t *item;
	json_t *answer = NULL;
	size_t i;
	int code;

	if (!parse(&a, argc, argv, 0, 1, &code))
		return code;
	code = ask_either(&a, local_conflicts, &answer);
	if (code)
		return code;
	if (a.json)
		return print_json(answer);
	json_array_foreach(json_object_get(answer, "conflicts"), i, item) {
		printf("%s\n    beside %s\n", quoted(json_string_value(json_object_get(item, "path"))),
			quoted(json_string_value(json_object_get(item, "original"))));
	}
	json_decref(answer);
	return EXIT_IN_SYNC;
}

int cmd_purge(int argc, char **argv)
{
	struct ask a = {.command = "purge", .usage = "purge [--json] [FOLDER|PATH]"};
	json_t *answer = NULL;
	char freed[16];
	int code;

	if (!parse(&a, argc, argv, 0, 1, &code))
		return code;
	code = ask_either(&a, local_purge, &answer);
	if (code)
		return code;
	if (a.json)
		return print_json(answer);
	printf("%" JSON_INTEGER_FORMAT " deletions forgotten, %" JSON_INTEGER_FORMAT " remembered; %s of trash removed\n",
		json_integer_value(json_object_get(answer, "purged")), json_integer_value(json_object_get(answer, "left")),
		ui_bytes((uint64_t)json_integer_value(json_object_get(answer, "freed")), freed));
	json_decref(answer);
	return EXIT_IN_SYNC;
}

int cmd_trash(int argc, char **argv)
{
	static const char usage[] = "trash list [--json] [FOLDER|PATH], syncctl trash restore FOLDER|PATH NAME";
	struct ask a = {.usage = usage};
	json_t *answer = NULL;
	bool restore = argc > 1 && strcmp(argv[1], "restore") == 0;
	int code;

	if (argc < 2 || (!restore && strcmp(argv[1], "list") != 0)) {
		fprintf(stderr, "usage: syncctl %s\n", usage);
		return EXIT_USAGE;
	}
	a.command = restore ? "trash-restore" : "trash-list";
	if (!parse(&a, argc - 1, argv + 1, restore ? 2 : 0, restore ? 2 : 1, &code))
		return code;
	code = ask_either(&a, restore ? local_trash_restore : local_trash_list, &answer);
	if (code)
		return code;
	if (a.json)
		return print_json(answer);
	if (restore)
		printf("restored %s\n", quoted(a.words[1]));
	else
		print_list(answer, "trash", "path", "bucket");
	json_decref(answer);
	return EXIT_IN_SYNC;
}

int cmd_peer(int argc, char **argv)
{
	struct ask a = {.command = "retire", .usage = "peer retire FOLDER MEMBER"};
	json_t *request, *answer = NULL;
	int code;

	if (argc < 2 || strcmp(argv[1], "retire") != 0) {
		fprintf(stderr, "usage: syncctl %s\n", a.usage);
		return EXIT_USAGE;
	}
	if (!parse(&a, argc - 1, argv + 1, 2, 2, &code))
		return code;
	request = request_for(&a);
	json_object_set_new(request, "member", json_string(a.words[1]));
	code = command_call(command_socket(a.socket), request, NULL, 0, &answer);
	json_decref(answer);
	return code;
}

static void print_line(const char *line, void *data)
{
	(void)data;
	fprintf(stderr, "%s\n", line);
}

int cmd_check_config(int argc, char **argv)
{
	struct config *config = NULL;
	const char *file = argc > 1 ? argv[1] : COMMAND_CONFIG;
	int r = config_load(&config, file, print_line, NULL);

	if (r < 0) {
		if (r != -EINVAL)
			log_error("cannot read %s: %s", file, file_error_text(r));
		return EXIT_CONFIG;
	}
	printf("%s: %zu folders, %zu peers\n", file, config->n_folders, config->n_peers);
	config_free(config);
	return EXIT_IN_SYNC;
}
