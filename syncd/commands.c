/* syncd/commands.c — what the commands of syncctl share. */
#include "syncd/commands.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/log.h"
#include "syncd/config.h"
#include "syncd/control.h"
#include "syncd/exit_codes.h"

#define DAY_MS (INT64_C(24) * 3600 * 1000)
#define LOCK_LOOK_MS 20

int command_loop(uv_loop_t *loop)
{
	int r = uv_loop_init(loop);

	if (r == 0)
		return 0;
	log_error("cannot begin: %s", file_error_text(r));
	return EXIT_FAILED;
}

void command_folder_options(struct folder_options *ret, uv_loop_t *loop, const char *path)
{
	*ret = (struct folder_options){
		.loop = loop,
		.name = path,
		.path = path,
		.preserve_owner = geteuid() == 0,
		.tries = 2,
		.settle_ms = 500,
		.grace_ms = 10 * DAY_MS,
		.member_expiry_ms = 90 * DAY_MS,
		.trash_keep_ms = 30 * DAY_MS,
	};
}

int command_absolute(const char *text, char *ret, size_t n)
{
	const char *home = getenv("HOME");
	char cwd[PATH_MAX], resolved[PATH_MAX], joined[2 * PATH_MAX];

	if (strcmp(text, "~") == 0 || strncmp(text, "~/", 2) == 0) {
		if (!home)
			return -ENOENT;
		snprintf(joined, sizeof(joined), "%s%s", home, text + 1);
	} else if (*text == '/') {
		snprintf(joined, sizeof(joined), "%s", text);
	} else {
		if (!getcwd(cwd, sizeof(cwd)))
			return -errno;
		snprintf(joined, sizeof(joined), "%s/%s", cwd, text);
	}
	if (realpath(joined, resolved))
		snprintf(joined, sizeof(joined), "%s", resolved);
	if (strlen(joined) >= n)
		return -ENAMETOOLONG;
	strcpy(ret, joined);
	return 0;
}

static int folder_of_daemon(const char *name, const char *socket, char *ret, size_t n)
{
	json_t *request = json_pack("{s:s, s:s}", "command", "status", "folder", name), *answer = NULL;
	const json_t *folder;
	const char *path;
	int r = request ? control_call(command_socket(socket), request, NULL, 0, &answer) : -ENOMEM;

	json_decref(request);
	if (r < 0)
		return r;
	folder = json_array_get(json_object_get(answer, "folders"), 0);
	path = json_string_value(json_object_get(folder, "path"));
	r = path ? command_absolute(path, ret, n) : -ENOENT;
	json_decref(answer);
	return r;
}

static int folder_of_file(const char *name, const char *file, char *ret, size_t n)
{
	struct config *config = NULL;
	const struct config_folder *folder;
	int r = config_load(&config, file, NULL, NULL);

	if (r < 0)
		return r;
	folder = config_find_folder(config, name);
	r = folder ? command_absolute(folder->path, ret, n) : -ENOENT;
	config_free(config);
	return r;
}

int command_folder_path(const char *name, const char *socket, const char *config_file, char *ret, size_t n)
{
	if (config_file)
		return folder_of_file(name, config_file, ret, n);
	if (folder_of_daemon(name, socket, ret, n) == 0)
		return 0;
	return socket ? -ENOENT : folder_of_file(name, COMMAND_CONFIG, ret, n);
}

int command_named_folder(const char *word, const char *socket, const char *config_file, char *ret, size_t n)
{
	struct stat st;

	if (!*word || *word == '~' || strchr(word, '/') || lstat(word, &st) == 0)
		return -ENOENT;
	return command_folder_path(word, socket, config_file, ret, n);
}

int command_folder_open(struct folder **ret, const struct folder_options *options, char *why, size_t n, char **ret_holder)
{
	int64_t until = clock_monotonic_ns() + COMMAND_LOCK_MS * CLOCK_NS_PER_MS;
	int64_t pid;
	int r;

	for (;;) {
		char *holder = NULL;

		*ret_holder = NULL;
		r = folder_open(ret, options, why, n);
		if (r == STORE_LOCKED && store_lock_holder(options->path, &pid, &holder) == 0 && *holder) {
			*ret_holder = holder;
			return r;
		}
		free(holder);
		if (r != STORE_LOCKED || clock_monotonic_ns() >= until)
			return r;
		uv_sleep(LOCK_LOOK_MS);
	}
}

int command_mode(const char *text, bool *ret_sends, bool *ret_takes)
{
	if (strcmp(text, "two-way") != 0 && strcmp(text, "push") != 0 && strcmp(text, "pull") != 0)
		return -EINVAL;
	*ret_sends = strcmp(text, "pull") != 0;
	*ret_takes = strcmp(text, "push") != 0;
	return 0;
}

const char *command_socket(const char *given)
{
	static char path[108];

	if (given)
		return given;
	control_default_socket(path, sizeof(path));
	return path;
}

int command_call(const char *socket, json_t *request, const int *fds, size_t n_fds, json_t **ret_answer)
{
	json_t *answer = NULL;
	const char *error;
	int r, code;

	r = control_call(socket, request, fds, n_fds, &answer);
	json_decref(request);
	if (r == -ENOENT || r == -ECONNREFUSED) {
		log_error("no daemon answers at %s; start it (systemctl start syncd), or name a folder's path", socket);
		return EXIT_LOCKED;
	}
	if (r < 0) {
		log_error("cannot ask the daemon at %s: %s", socket, file_error_text(r));
		return r == -EACCES ? EXIT_DENIED : EXIT_FAILED;
	}
	error = json_string_value(json_object_get(answer, "error"));
	if (error) {
		log_error("%s", error);
		code = (int)json_integer_value(json_object_get(answer, "code"));
		json_decref(answer);
		return code ? code : EXIT_FAILED;
	}
	*ret_answer = answer;
	return 0;
}
