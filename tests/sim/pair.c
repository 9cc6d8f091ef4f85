/*
 * tests/sim/pair.c — two real replicas on simulated disks: users, scans, sessions, crashes. The first and smallest client of
 * tests/sim/fs.h: what it asks at the end is that both are alike (P1), and that a file's whole content is some user's.
 *
 * usage: pair RUNS [SEED [CRASHES [ORDER]]]     CRASHES: one in so many sessions kills a machine at some call; 0: none
 *                                               ORDER: enum sim_order of both disks
 *
 * One run of each hundred is made twice, and must leave the same trace. A failure says its seed.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "tests/sim/fs.h"
#include "tombstones/observe.h"
#include "transfer/session.h"

#define OPERATIONS 30
#define QUIET_MAX 12
#define TEXT_BYTES 32

struct pair;

struct site {
	struct pair *pair;
	struct sim_host *host;
	struct sim_disk *disk;
	char mount[8];
	struct replica *replica;
	struct ignore *ignore;
	struct session *session;
	bool opened, greeted, dirty, broken;
};

struct pair {
	uint64_t seed, random;
	unsigned crashes, tokens;
	enum sim_order order;
	bool told; /* what happens */
	struct site site[2];
};

__attribute__((format(printf, 2, 3))) static void tell(const struct pair *p, const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	if (p->told)
		vfprintf(stderr, fmt, args);
	va_end(args);
}

_Noreturn static void wrong(const struct pair *p, const char *what, int r)
{
	fprintf(stderr, "seed %" PRIu64 ": %s: %d (%s)\n", p->seed, what, r, file_error_text(r));
	exit(1);
}

/* --- a site --- */

/* A machine that was killed may fail in any way; others not at all. */
static void check(const struct site *s, const char *what, int r)
{
	if (r && !sim_disk_killed(s->disk))
		wrong(s->pair, what, r);
}

static void site_open(struct site *s)
{
	const struct store_options options = {.create = true};
	struct store *store = NULL;
	uint64_t intents;
	int r;

	sim_host_enter(s->host);
	r = store_open(&store, s->mount, &options);
	check(s, "store_open", r);
	if (r == 0)
		r = replica_open(&s->replica, store);
	check(s, "replica_open", r);
	if (r == 0)
		check(s, "apply_recover", apply_recover(s->replica, &intents));
}

static void site_close(struct site *s)
{
	replica_close(s->replica);
	s->replica = NULL;
	s->broken = s->dirty = false;
}

static void site_scan(struct site *s)
{
	const struct observe_options options = {.replica = s->replica, .confirmed = true};
	const struct scan_options scan = {.store = replica_store(s->replica), .ignore = s->ignore};
	const struct observe_path all = {.path = ""};
	struct observe_result seen = {0};

	s->dirty = false;
	check(s, "observe_run", observe_run(&options, &scan, &all, 1, NULL, NULL, &seen));
}

/* After a machine was killed: power is lost, it starts again. */
static void site_restart(struct site *s)
{
	tell(s->pair, "%s: power is lost\n", s->mount);
	site_close(s);
	sim_disk_crash(s->disk, &s->pair->random);
	sim_disk_check(s->disk);
	sim_disk_hook(s->disk, NULL, NULL);
	site_open(s);
}

/* --- a session --- */

static void on_opened(struct session *session, const struct message_open *open, void *data)
{
	(void)session;
	(void)open;
	((struct site *)data)->opened = true;
}

static void on_greeted(struct session *session, bool rescan, void *data)
{
	(void)session;
	(void)rescan;
	((struct site *)data)->greeted = true;
}

static void on_dirty(struct session *session, const char *path, void *data)
{
	(void)session;
	(void)path;
	((struct site *)data)->dirty = true;
}

static void on_broken(struct session *session, int error, void *data)
{
	(void)session;
	(void)error;
	((struct site *)data)->broken = true;
}

static void on_tell(struct session *session, const char *path, enum decide_action action, enum apply_result result, int error,
	void *data)
{
	const struct site *s = data;

	(void)session;
	tell(s->pair, "  %s: %s: action %d, %s, %d\n", s->mount, path, (int)action, apply_result_name(result), error);
}

static void begin_session(struct site *s, bool client)
{
	const struct session_options options = {
		.client = client,
		.replica = client ? s->replica : NULL,
		.ignore = s->ignore,
		.sends = true,
		.takes = true,
		.preserve_owner = true,
		.name = s->mount,
		.open = {.place = (char *)"/x", .sends = 1, .takes = 1},
		.host = {.opened = on_opened, .greeted = on_greeted, .tell = on_tell, .dirty = on_dirty, .broken = on_broken, .data = s},
	};
	int r = session_new(&s->session, &options);

	s->opened = s->greeted = false;
	if (r)
		wrong(s->pair, "session_new", r);
}

static bool ended(const struct site *s)
{
	struct session_status status;

	session_status(s->session, &status);
	return status.state == SESSION_ENDED;
}

static bool run_jobs(struct site *s)
{
	struct session_job *job;
	bool any = false;

	while ((job = session_next_job(s->session))) {
		session_job_run(job);
		session_job_done(s->session, job);
		any = true;
	}
	return any;
}

static bool serve(struct site *s)
{
	if (s->opened) {
		s->opened = false;
		session_attach(s->session, s->replica, s->ignore, true, true);
		return true;
	}
	if (s->greeted) {
		s->greeted = false;
		site_scan(s);
		session_ready(s->session);
		return true;
	}
	if (s->dirty && !s->broken) {
		site_scan(s);
		return true;
	}
	return false;
}

static bool move_bytes(struct site *from, struct site *to)
{
	const uint8_t *p;
	size_t n;

	p = session_output(from->session, &n);
	if (!n)
		return false;
	n = 1 + sim_below(&from->pair->random, n);
	if (!ended(to)) {
		sim_host_enter(to->host);
		session_input(to->session, p, n);
	}
	session_output_consumed(from->session, n);
	return true;
}

/* A peer whose machine died does nothing, but its end of the stream is closed. */
static bool step(struct pair *p, int i)
{
	struct site *s = &p->site[i], *other = &p->site[!i];
	bool any;

	if (sim_disk_killed(s->disk)) {
		if (ended(other))
			return false;
		session_input_end(other->session);
		return true;
	}
	sim_host_enter(s->host);
	any = run_jobs(s);
	any |= serve(s);
	if (!sim_disk_killed(s->disk))
		any |= move_bytes(s, other);
	if (!any && ended(s) && !ended(other)) {
		session_input_end(other->session);
		any = true;
	}
	return any;
}

static void run_session(struct pair *p)
{
	int client = (int)sim_below(&p->random, 2);
	bool any = true;

	tell(p, "session\n");
	for (int i = 0; i < 2; i++) {
		sim_host_enter(p->site[i].host);
		begin_session(&p->site[i], i == client);
	}
	while (any) {
		any = step(p, 0);
		any |= step(p, 1);
	}
	for (int i = 0; i < 2; i++) {
		struct site *s = &p->site[i];
		struct session_status status;
		uint64_t intents;

		sim_host_enter(s->host);
		session_status(s->session, &status);
		tell(p, "%s: %s, %u rounds, %" PRIu64 " applied, %" PRIu64 " skipped %s\n", s->mount,
			status.in_sync ? "in sync" : "not in sync", status.round, status.applied, status.skipped, status.text);
		if (!ended(s) && !sim_disk_killed(s->disk))
			wrong(p, "a session stands still", 0);
		session_free(s->session);
		s->session = NULL;
		if (s->broken && !sim_disk_killed(s->disk))
			check(s, "apply_recover", apply_recover(s->replica, &intents));
		s->broken = false;
	}
	for (int i = 0; i < 2; i++)
		if (sim_disk_killed(p->site[i].disk))
			site_restart(&p->site[i]);
		else
			sim_disk_hook(p->site[i].disk, NULL, NULL);
}

/* --- users --- */

static void name_of(struct pair *p, char ret[16])
{
	static const char names[] = "pqrs";
	const char a = names[sim_below(&p->random, 4)], b = names[sim_below(&p->random, 4)];

	snprintf(ret, 16, sim_one_in(&p->random, 2) ? "%c" : "%c/%c", a, b);
}

/* What is in the way goes; a race with nothing: all of this is one user's step. */
static void user_write(struct pair *p, struct sim_disk *d, const char *path)
{
	bool in_place = sim_one_in(&p->random, 2);
	char text[TEXT_BYTES], parent[2] = {path[0], 0};
	struct file_stat st;
	size_t n = (size_t)snprintf(text, sizeof(text), "token-%u\n", ++p->tokens);

	tell(p, "writes %s: token-%u%s\n", path, p->tokens, in_place ? ", in place" : "");
	if (path[1] && (sim_user_stat(d, parent, &st) || st.kind != FILE_KIND_DIRECTORY)) {
		(void)sim_user_remove(d, parent);
		(void)sim_user_mkdir(d, parent, 0755);
	}
	if (sim_user_stat(d, path, &st) == 0 && st.kind != FILE_KIND_REGULAR)
		(void)sim_user_remove(d, path);
	if (sim_user_write(d, in_place ? path : "tmp", text, n) == 0 && !in_place)
		(void)sim_user_rename(d, "tmp", path);
}

static void user(struct pair *p)
{
	const struct site *s = &p->site[sim_below(&p->random, 2)];
	struct sim_disk *d = s->disk;
	unsigned what = (unsigned)sim_below(&p->random, 8);
	char path[16], other[16];

	name_of(p, path);
	name_of(p, other);
	tell(p, "%s: %u %s %s\n", s->mount, what, path, other);
	switch (what) {
	case 0:
		(void)sim_user_remove(d, path);
		break;
	case 1:
		(void)sim_user_rename(d, path, other);
		break;
	case 2:
		(void)sim_user_exchange(d, path, other);
		break;
	case 3:
		(void)sim_user_chmod(d, path, sim_one_in(&p->random, 2) ? 0700 : 0755);
		break;
	default:
		user_write(p, d, path);
	}
	sim_advance((int64_t)sim_below(&p->random, 5) * CLOCK_NS_PER_S);
}

/* --- the judge --- */

struct listing {
	struct pair *pair;
	struct sim_disk *disk;
	FILE *out;
};

static int list_one(const char *path, const struct file_stat *st, void *data)
{
	struct listing *l = data;
	char text[TEXT_BYTES + 1] = "";
	unsigned token;
	size_t n = 0;

	if (strncmp(path, ".syncd", 6) == 0)
		return 0;
	if (st->kind == FILE_KIND_REGULAR) {
		(void)sim_user_read(l->disk, path, text, TEXT_BYTES, &n);
		/* a crash may tear what a user wrote and did not sync */
		if (!l->pair->crashes && (sscanf(text, "token-%u\n", &token) != 1 || token > l->pair->tokens))
			wrong(l->pair, "from nowhere", 0);
	}
	fprintf(l->out, "%s %d %o %" PRId64 " %s\n", path, (int)st->kind, st->kind == FILE_KIND_DIRECTORY ? 0U : st->mode,
		st->kind == FILE_KIND_DIRECTORY ? 0 : st->mtime_ns, text);
	return 0;
}

static char *listing(struct pair *p, struct sim_disk *d)
{
	char *text = NULL;
	size_t size;
	struct listing l = {.pair = p, .disk = d, .out = open_memstream(&text, &size)};

	(void)sim_user_walk(d, "", list_one, &l);
	fclose(l.out);
	return text;
}

static void root_of(struct site *s, struct hash *ret)
{
	struct index_txn *t = NULL;

	check(s, "index_begin_read", index_begin_read(replica_index(s->replica), &t));
	check(s, "tree_root", tree_root(t, TREE_LIVE, ret));
	index_abort(t);
}

static bool alike(struct pair *p)
{
	char *a = listing(p, p->site[0].disk), *b = listing(p, p->site[1].disk);
	bool same = strcmp(a, b) == 0;
	struct hash x, y;

	root_of(&p->site[0], &x);
	root_of(&p->site[1], &y);
	free(a);
	free(b);
	return same && hash_equal(&x, &y);
}

/* --- a history --- */

struct death {
	const struct pair *pair;
	uint64_t at;
};

static void kill_at(struct sim_disk *d, enum sim_call call, uint64_t n, void *data)
{
	const struct death *death = data;

	if (n != death->at)
		return;
	tell(death->pair, "killed at %s\n", sim_call_name(call));
	sim_disk_kill(d);
}

static uint64_t history(const struct pair *plan)
{
	struct pair p = *plan;
	const unsigned crashes = p.crashes;
	struct death death[2];
	unsigned quiet = 0;
	uint64_t trace;

	sim_begin(p.seed);
	for (int i = 0; i < 2; i++) {
		struct sim_disk_options options = sim_disk_usual;
		struct site *s = &p.site[i];

		options.never_crashes = !crashes;
		options.order = p.order;
		s->pair = &p;
		s->host = sim_host_new();
		s->disk = sim_disk_new(s->host, &options);
		snprintf(s->mount, sizeof(s->mount), "/%c", 'a' + i);
		sim_mount(s->disk, s->mount);
		if (ignore_new(&s->ignore))
			wrong(&p, "ignore_new", -ENOMEM);
		site_open(s);
	}
	run_session(&p);
	for (unsigned k = 0; k < OPERATIONS; k++) {
		user(&p);
		if (!sim_one_in(&p.random, 5))
			continue;
		for (int i = 0; i < 2; i++) {
			if (!crashes || !sim_one_in(&p.random, crashes))
				continue;
			death[i] = (struct death){&p, sim_disk_calls(p.site[i].disk) + 1 + sim_below(&p.random, 300)};
			sim_disk_hook(p.site[i].disk, kill_at, &death[i]);
		}
		run_session(&p);
	}
	do
		run_session(&p);
	while (!alike(&p) && ++quiet < QUIET_MAX);
	if (quiet == QUIET_MAX) {
		fprintf(stderr, "--- a\n%s--- b\n%s", listing(&p, p.site[0].disk), listing(&p, p.site[1].disk));
		wrong(&p, "diverged", 0);
	}
	for (int i = 0; i < 2; i++) {
		site_close(&p.site[i]);
		ignore_free(p.site[i].ignore);
	}
	if (sim_open_descriptors())
		wrong(&p, "descriptors are left open", (int)sim_open_descriptors());
	trace = sim_trace();
	sim_end();
	return trace;
}

static double seconds(void)
{
	struct timespec t;

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

int main(int argc, char **argv)
{
	unsigned long runs = argc > 1 ? strtoul(argv[1], NULL, 10) : 1000;
	uint64_t seed = argc > 2 ? strtoull(argv[2], NULL, 10) : (uint64_t)time(NULL) * 1000;
	unsigned crashes = argc > 3 ? (unsigned)strtoul(argv[3], NULL, 10) : 4;
	enum sim_order order = argc > 4 ? (enum sim_order)strtoul(argv[4], NULL, 10) : SIM_ORDERED;
	double began = seconds(), took;

	for (unsigned long i = 0; i < runs; i++) {
		struct pair plan = {.seed = seed + i, .random = seed + i, .crashes = crashes, .order = order, .told = runs == 1};
		uint64_t trace = history(&plan);

		if (i % 100 == 99 && history(&plan) != trace) {
			fprintf(stderr, "seed %" PRIu64 ": another trace the second time\n", plan.seed);
			return 1;
		}
	}
	took = seconds() - began;
	printf("%lu histories from seed %" PRIu64 ": %.2f ms of the processor each\n", runs, seed, 1000 * took / (double)runs);
	return 0;
}
