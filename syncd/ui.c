/* syncd/ui.c — see syncd/ui.h. */
#include "syncd/ui.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "base/error.h"
#include "base/log.h"
#include "merkle/store.h"
#include "syncd/exit_codes.h"

#define RATE_SHOWN 1024 /* bytes a second: less is keep-alives */

char *ui_bytes(uint64_t bytes, char *ret)
{
	static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
	double value = (double)bytes;
	size_t unit = 0;

	while (value >= 1024 && unit + 1 < ARRAY_SIZE(units)) {
		value /= 1024;
		unit++;
	}
	snprintf(ret, 16, unit && value < 100 ? "%.1f %s" : "%.0f %s", value, units[unit]);
	return ret;
}

char *ui_count(uint64_t n, const char *thing, char *ret)
{
	snprintf(ret, 48, "%" PRIu64 " %.20s%s", n, thing, n == 1 ? "" : "s");
	return ret;
}

char *ui_age(int64_t seconds, char *ret)
{
	if (seconds < 0) /* a clock was set back */
		seconds = 0;
	if (seconds < 120)
		snprintf(ret, 24, "%lld s", (long long)seconds);
	else if (seconds < 7200)
		snprintf(ret, 24, "%lld min", (long long)(seconds / 60));
	else if (seconds < 172800)
		snprintf(ret, 24, "%lld h", (long long)(seconds / 3600));
	else
		snprintf(ret, 24, "%lld d", (long long)(seconds / 86400));
	return ret;
}

static int exit_of_fail(uint16_t code)
{
	switch (code) {
	case MESSAGE_FAIL_PROTOCOL:
		return EXIT_PROTOCOL;
	case MESSAGE_FAIL_NO_FOLDER:
		return EXIT_NO_FOLDER;
	case MESSAGE_FAIL_DENIED:
		return EXIT_DENIED;
	case MESSAGE_FAIL_FOLDER_ID:
		return EXIT_FOLDER_ID;
	case MESSAGE_FAIL_HALTED:
		return EXIT_HALTED;
	case MESSAGE_FAIL_BUSY:
		return EXIT_LOCKED;
	case MESSAGE_FAIL_SPACE:
		return EXIT_SPACE;
	case MESSAGE_FAIL_SAME:
		return EXIT_USAGE;
	default:
		return EXIT_FAILED;
	}
}

int ui_exit_of_session(const struct session_status *s)
{
	if (s->failed) {
		if (s->error == -ENOSPC || s->error == -EDQUOT)
			return EXIT_SPACE;
		if (s->error == -EPROTONOSUPPORT)
			return EXIT_VERSION;
		if (s->error == -EPROTO)
			return EXIT_PROTOCOL;
		if (s->peer_code)
			return exit_of_fail(s->peer_code);
		return s->error == -EPIPE || s->error == -ETIMEDOUT ? EXIT_CONNECT : EXIT_FAILED;
	}
	if (s->full || s->peer_full)
		return EXIT_SPACE;
	if (s->held || s->peer_held)
		return EXIT_HELD;
	return s->skipped || s->peer_skipped ? EXIT_PARTIAL : EXIT_IN_SYNC;
}

int ui_exit_of_transport(int transport_exit)
{
	switch (transport_exit) {
	case TRANSPORT_EXIT_OK:
		return EXIT_IN_SYNC;
	case TRANSPORT_EXIT_HOST_KEY:
		return EXIT_HOST_KEY;
	case TRANSPORT_EXIT_AUTH:
		return EXIT_AUTH;
	case TRANSPORT_EXIT_COMMAND:
		return EXIT_COMMAND;
	case TRANSPORT_EXIT_USAGE:
		return EXIT_USAGE;
	default:
		return EXIT_CONNECT;
	}
}

int ui_exit_of_store(int r)
{
	switch (r) {
	case STORE_NO_ROOT:
	case STORE_NO_INDEX:
		return EXIT_NO_FOLDER;
	case STORE_LOCKED:
		return EXIT_LOCKED;
	case STORE_ROOT_CHANGED:
	case STORE_FOREIGN:
	case STORE_FAILING:
		return EXIT_HALTED;
	case STORE_DENIED:
		return EXIT_DENIED;
	case STORE_OVERLAP:
		return EXIT_USAGE;
	case -EPROTONOSUPPORT:
		return EXIT_VERSION;
	case -ENOSPC:
	case -EDQUOT:
		return EXIT_SPACE;
	default:
		return r ? EXIT_FAILED : EXIT_IN_SYNC;
	}
}

static const char *text_of(const json_t *o, const char *key)
{
	const char *text = json_string_value(json_object_get(o, key));

	return text ? text : "";
}

static uint64_t number_of(const json_t *o, const char *key)
{
	return (uint64_t)json_integer_value(json_object_get(o, key));
}

bool ui_is_held(const json_t *problem)
{
	return strcmp(text_of(problem, "why"), apply_result_name(APPLY_HELD)) == 0;
}

/* "at most 2.0 MiB/s sent", where there are limits. */
static void print_limits(const json_t *o)
{
	uint64_t up = number_of(o, "limit_up"), down = number_of(o, "limit_down");
	char text[16];

	if (up)
		printf("; at most %s/s sent", ui_bytes(up, text));
	if (down)
		printf("; at most %s/s received", ui_bytes(down, text));
}

static void print_session(const json_t *s)
{
	const char *peer = text_of(s, "peer"), *name = text_of(s, "name");
	bool served = json_is_true(json_object_get(s, "served"));
	char in[16], out[16], count[48];

	printf("  peer %s", served && *name ? name : peer);
	if (*name)
		printf(" (%s)", served ? peer : name);
	printf(": %s", json_is_true(json_object_get(s, "in_sync")) ? "in sync" : text_of(s, "state"));
	if (json_is_true(json_object_get(s, "stuck")))
		printf(", differences remain");
	if (number_of(s, "pending"))
		printf(", %s under way", ui_count(number_of(s, "pending"), "path", count));
	printf("; received %s, sent %s", ui_bytes(number_of(s, "bytes_in"), in), ui_bytes(number_of(s, "bytes_out"), out));
	if (number_of(s, "rate_in") + number_of(s, "rate_out") >= RATE_SHOWN)
		printf(", now %s/s and %s/s", ui_bytes(number_of(s, "rate_in"), in), ui_bytes(number_of(s, "rate_out"), out));
	print_limits(s);
	if (number_of(s, "conflicts"))
		printf("; %s kept beside", ui_count(number_of(s, "conflicts"), "conflict", count));
	if (number_of(s, "local_differences"))
		printf("; %s", ui_count(number_of(s, "local_differences"), "local difference", count));
	if (number_of(s, "peer_held"))
		printf("; it holds %s: if meant, confirm there", ui_count(number_of(s, "peer_held"), "deletion", count));
	if (json_is_true(json_object_get(s, "ignore_differs")))
		printf("; its ignore rules differ from ours");
	if (json_is_true(json_object_get(s, "policy_differs")))
		printf("; its conflict policy differs: keep-both is used");
	putchar('\n');
}

/* A peer of the configuration that has no session. */
static void print_peer(const json_t *p)
{
	char age[24], count[48];
	int64_t since = json_integer_value(json_object_get(p, "since"));

	printf("  peer %s: %s", text_of(p, "peer"), text_of(p, "state"));
	if (number_of(p, "local_differences"))
		printf(", %s", ui_count(number_of(p, "local_differences"), "local difference", count));
	if (*text_of(p, "error"))
		printf(": %s", text_of(p, "error"));
	if (since)
		printf(" (since %s)", ui_age((int64_t)time(NULL) - since, age));
	putchar('\n');
}

static void print_folder(const json_t *f)
{
	const json_t *item;
	char bytes[16], age[24];
	size_t i;

	printf("folder %s  %s\n", text_of(f, "folder"), text_of(f, "path"));
	printf("  %s", text_of(f, "state"));
	if (*text_of(f, "reason"))
		printf(": %s", text_of(f, "reason"));
	if (*text_of(f, "root"))
		printf("; %llu entries, %s; root %.12s", (unsigned long long)number_of(f, "entries"),
			ui_bytes(number_of(f, "bytes"), bytes), text_of(f, "root"));
	putchar('\n');
	if (number_of(f, "held"))
		printf("  %llu deletions are held: confirm with: syncctl confirm %s\n", (unsigned long long)number_of(f, "held"),
			text_of(f, "folder"));
	item = json_object_get(f, "index_rebuilt");
	if (item)
		printf("  the index was damaged and rebuilt %s ago: %s%s%s\n",
			ui_age((int64_t)time(NULL) - json_integer_value(json_object_get(item, "when")), age), text_of(item, "why"),
			*text_of(item, "kept") ? "; the damaged one is " : "", text_of(item, "kept"));
	if (number_of(f, "unwatched"))
		printf("  %llu directories can't be watched: raise fs.inotify.max_user_watches\n",
			(unsigned long long)number_of(f, "unwatched"));
	json_array_foreach(json_object_get(f, "sessions"), i, item) {
		print_session(item);
	}
	json_array_foreach(json_object_get(f, "peers"), i, item) {
		if (strcmp(text_of(item, "state"), "connected") != 0)
			print_peer(item);
	}
	json_array_foreach(json_object_get(f, "not_in_sync"), i, item) {
		int64_t since = (int64_t)time(NULL) - json_integer_value(json_object_get(item, "since"));

		if (ui_is_held(item))
			continue; /* told as a number */
		printf("  not in sync: %s: %s (for %s); %s\n", quoted(text_of(item, "path")), text_of(item, "why"), ui_age(since, age),
			text_of(item, "todo"));
	}
	if (number_of(f, "problems") > json_array_size(json_object_get(f, "not_in_sync")))
		printf("  … %llu paths are not in sync in all\n", (unsigned long long)number_of(f, "problems"));
}

static void print_sessions(const json_t *o)
{
	if (number_of(o, "waiting"))
		printf("%llu sessions are open, as many as may be; %llu more wait for their turn\n",
			(unsigned long long)number_of(o, "open"), (unsigned long long)number_of(o, "waiting"));
}

void ui_print_status(const json_t *status)
{
	const json_t *f;
	size_t i;

	json_array_foreach(json_object_get(status, "folders"), i, f) {
		print_folder(f);
	}
	print_sessions(json_object_get(status, "sessions"));
	if (!json_array_size(json_object_get(status, "folders")))
		puts("no folders");
}
