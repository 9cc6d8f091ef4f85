/*
 * tests/sim/engine.c — many histories: in as many processes as there are processors, each with its share of the seeds; what
 * goes wrong is shrunk, and shown. See tests/sim/engine.h.
 *
 * usage: engine RUNS [SEED [FEATURES [STEPS]]]
 *
 *   FEATURES   all, none, or names with commas between: what may happen; -NAME takes one from all
 *   STEPS      of one history only these are done: 0-7,12 …
 *
 * One history tells what happens. Each hundredth seed runs twice, and must leave the same trace. COMMIT, in the environment,
 * is printed with a failure.
 */
#include "tests/sim/engine.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "tests/sim/jobs.h"

#define FAILURES_MAX 10
#define HISTORY_SECONDS_MAX 60 /* of the wall clock: it hangs */

static const char *const wrong_names[] = {
	[WRONG_OTHER] = "error",
	[WRONG_DIVERGED] = "P1 diverged",
	[WRONG_LOST] = "P2 lost",
	[WRONG_RESURRECTED] = "P3 resurrected",
	[WRONG_TAKEN] = "P4 removed",
	[WRONG_TORN] = "P5 torn",
	[WRONG_EVENT] = "P7 recovery",
	[WRONG_CONTENT] = "P8 content",
	[WRONG_CONFLICT] = "conflict",
	[WRONG_TRACE] = "trace",
};

void tell(const struct engine *e, const char *fmt, ...)
{
	va_list args;

	if (!e->told)
		return;
	va_start(args, fmt);
	vfprintf(stderr, fmt, args);
	va_end(args);
	fputc('\n', stderr);
}

void wrong(const struct engine *e, enum wrong what, const char *fmt, ...)
{
	char text[1024];
	va_list args;

	va_start(args, fmt);
	vsnprintf(text, sizeof(text), fmt, args);
	va_end(args);
	fprintf(stderr, "seed %" PRIu64 ": %s: %s (step %u)\n", e->seed, wrong_names[what], text, e->at);
	_exit(WRONG_STATUS + (int)what);
}

static uint64_t run_one(uint64_t seed, uint32_t allowed, const bool *keep, bool told)
{
	static struct engine e;

	e = (struct engine){.seed = seed, .allowed = allowed, .keep = keep, .told = told};
	history_plan(&e);
	return history_run(&e);
}

/* --- processes --- */

struct shared {
	uint64_t next[JOBS_MAX]; /* the seed that each is at */
	uint64_t done;
	uint64_t traces; /* their sum: equal where nothing was done otherwise */
};

static void work(struct shared *shared, unsigned number, unsigned workers, uint64_t end, uint64_t seed, uint32_t allowed)
{
	struct engine twice = {0};
	uint64_t *at = &shared->next[number], trace;

	for (; *at < end; *at += workers) {
		alarm(HISTORY_SECONDS_MAX);
		trace = run_one(*at, allowed, NULL, false);
		twice.seed = *at;
		if ((*at - seed) % 100 == 99 && run_one(*at, allowed, NULL, false) != trace)
			wrong(&twice, WRONG_TRACE, "another one the second time");
		__atomic_add_fetch(&shared->done, 1, __ATOMIC_RELAXED);
		__atomic_add_fetch(&shared->traces, trace, __ATOMIC_RELAXED);
	}
	_exit(0);
}

static pid_t begin(struct shared *shared, unsigned number, unsigned workers, uint64_t end, uint64_t seed, uint32_t allowed)
{
	pid_t pid = fork();

	if (pid < 0) {
		perror("fork");
		exit(2);
	}
	if (pid == 0)
		work(shared, number, workers, end, seed, allowed);
	return pid;
}

static const char *name_of(int status, char ret[64])
{
	if (WIFSIGNALED(status))
		snprintf(ret, 64, "signal %d (%s)", WTERMSIG(status), strsignal(WTERMSIG(status)));
	else if (WEXITSTATUS(status) >= WRONG_STATUS && WEXITSTATUS(status) <= WRONG_STATUS + (int)WRONG_TRACE)
		snprintf(ret, 64, "%s", wrong_names[WEXITSTATUS(status) - WRONG_STATUS]);
	else
		snprintf(ret, 64, "exit status %d", WEXITSTATUS(status));
	return ret;
}

/* --- shrinking --- */

/* How a process of its own ends that runs this history. */
static int try(uint64_t seed, uint32_t allowed, const bool *keep, bool told)
{
	int status = 0;
	pid_t pid;

	fflush(NULL);
	pid = fork();
	if (pid < 0) {
		perror("fork");
		exit(2);
	}
	if (pid == 0) {
		if (!told && !freopen("/dev/null", "w", stderr))
			_exit(1);
		alarm(HISTORY_SECONDS_MAX);
		run_one(seed, allowed, keep, told);
		_exit(0);
	}
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	return status;
}

/* Leave out as many steps as can be while it still goes wrong in the same way. */
static void shrink(uint64_t seed, uint32_t allowed, int status, unsigned n, bool *keep)
{
	bool less[STEPS_MAX];

	for (unsigned size = n / 2; size; size = size == 1 ? 0 : (size + 1) / 2)
		for (unsigned from = 0; from < n; from += size) {
			bool any = false;

			memcpy(less, keep, sizeof(less));
			for (unsigned i = from; i < n && i < from + size; i++) {
				any = any || less[i];
				less[i] = false;
			}
			if (any && try(seed, allowed, less, false) == status)
				memcpy(keep, less, sizeof(less));
		}
}

static void print_steps(const bool *keep, unsigned n)
{
	const char *separator = "";

	for (unsigned i = 0; i < n; i++) {
		unsigned from = i;

		if (!keep[i])
			continue;
		while (i + 1 < n && keep[i + 1])
			i++;
		fprintf(stderr, from == i ? "%s%u" : "%s%u-%u", separator, from, i);
		separator = ",";
	}
	fprintf(stderr, "%s\n", *separator ? "" : "none");
}

static void show(uint64_t seed, uint32_t allowed, const char *features, int status)
{
	struct engine e = {.seed = seed, .allowed = allowed};
	const char *commit = getenv("COMMIT");
	bool keep[STEPS_MAX] = {0};
	char text[64];

	history_plan(&e);
	memset(keep, true, e.n_steps);
	shrink(seed, allowed, status, e.n_steps, keep);
	fprintf(stderr, "\nseed %" PRIu64 ", commit %s: %s. The shortest that goes wrong so:\n", seed, commit ? commit : "unknown",
		name_of(status, text));
	try(seed, allowed, keep, true);
	fprintf(stderr, "again: build/sim 1 %" PRIu64 " %s ", seed, features);
	print_steps(keep, e.n_steps);
}

/* --- arguments --- */

static uint32_t features_of(const char *text)
{
	static const char *const names[] = {
#define X(name) #name,
		FEATURES(X)
#undef X
	};
	const uint32_t all = (UINT32_C(1) << FEATURE_COUNT) - 1;
	uint32_t features = 0;

	while (*text) {
		size_t n = strcspn(text, ","), less = *text == '-';
		uint32_t found = 0;

		for (unsigned i = 0; i < FEATURE_COUNT; i++)
			if (strlen(names[i]) == n - less && strncmp(names[i], text + less, n - less) == 0)
				found = UINT32_C(1) << i;
		if (strncmp(text, "all", n) == 0)
			found = all;
		else if (!found && strncmp(text, "none", n) != 0) {
			fprintf(stderr, "%.*s: no such feature; there are:", (int)n, text);
			for (unsigned i = 0; i < FEATURE_COUNT; i++)
				fprintf(stderr, " %s", names[i]);
			fputc('\n', stderr);
			exit(2);
		}
		features = less ? features & ~found : features | found;
		text += n + (text[n] == ',');
	}
	return features;
}

static void steps_of(const char *text, bool *keep)
{
	unsigned long from, to;
	char *end;

	while (*text >= '0' && *text <= '9') {
		from = to = strtoul(text, &end, 10);
		if (*end == '-')
			to = strtoul(end + 1, &end, 10);
		for (; from <= to && from < STEPS_MAX; from++)
			keep[from] = true;
		text = end + (*end == ',');
	}
}

static double seconds(clockid_t clock)
{
	struct timespec t;

	clock_gettime(clock, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

int main(int argc, char **argv)
{
	uint64_t runs = argc > 1 ? strtoull(argv[1], NULL, 10) : 1000;
	uint64_t seed = argc > 2 && *argv[2] ? strtoull(argv[2], NULL, 10) : (uint64_t)time(NULL) * 1000;
	const char *features = argc > 3 ? argv[3] : "all";
	uint32_t allowed = features_of(features);
	unsigned workers = (unsigned)sysconf(_SC_NPROCESSORS_ONLN), failures = 0, running;
	struct shared *shared;
	uint64_t first = UINT64_MAX;
	double began = seconds(CLOCK_MONOTONIC), took;
	pid_t pids[JOBS_MAX];
	int first_status = 0;
	char text[64];

	if (runs == 1) {
		bool keep[STEPS_MAX] = {0};

		steps_of(argc > 4 ? argv[4] : "0-999", keep);
		run_one(seed, allowed, keep, true);
		return 0;
	}
	shared = jobs_shared(sizeof(*shared));
	if (workers < 1 || workers > JOBS_MAX)
		workers = 1;
	for (unsigned i = 0; i < workers; i++) {
		shared->next[i] = seed + i;
		pids[i] = begin(shared, i, workers, seed + runs, seed, allowed);
	}
	for (running = workers; running;) {
		int status;
		pid_t pid = wait(&status);
		unsigned i = 0;

		while (i < workers && pids[i] != pid)
			i++;
		if (i == workers || status == 0) {
			running--;
			continue;
		}
		failures++;
		fprintf(stderr, "seed %" PRIu64 ": %s\n", shared->next[i], name_of(status, text));
		if (shared->next[i] < first) {
			first = shared->next[i];
			first_status = status;
		}
		shared->next[i] += workers;
		if (failures < FAILURES_MAX)
			pids[i] = begin(shared, i, workers, seed + runs, seed, allowed);
		else
			running--;
	}
	took = seconds(CLOCK_MONOTONIC) - began;
	if (failures)
		show(first, allowed, features, first_status);
	printf("%" PRIu64 " histories from seed %" PRIu64 " in %.1f s, %.2f ms each: %u went wrong; traces %016" PRIx64 "\n",
		shared->done + failures, seed, took, 1000 * took / (double)(shared->done + failures), failures, shared->traces);
	return failures > 0;
}
