/*
 * tests/sim/histories.c — many random histories of real replicas; see tests/sim/history.h.
 *
 * usage: histories [-f] RUNS [SEED]      one run traces its history and leaves the folders of a failure
 *                                        -f: until the first that goes wrong
 */
#include <setjmp.h>
#include <time.h>

static jmp_buf out_of_history;
#define WORLD_STOP() longjmp(out_of_history, 1)
#include "tests/sim/history.h"

#define FAILURES_MAX 20

/* What a history that failed holds is not freed: it stopped anywhere. */
static bool run(struct world *w, uint64_t seed, bool alone)
{
	if (setjmp(out_of_history) == 0) {
		history_run(w, seed, alone);
		return true;
	}
	if (!alone)
		world_remove_tree(w->base);
	return false;
}

int main(int argc, char **argv)
{
	const bool until_wrong = argc > 1 && strcmp(argv[1], "-f") == 0;
	unsigned long runs;
	int64_t began = clock_monotonic_ns();
	unsigned long failures = 0, i;
	uint64_t seed;

	argc -= until_wrong;
	argv += until_wrong;
	runs = argc > 1 ? strtoul(argv[1], NULL, 10) : 300;
	seed = argc > 2 ? strtoull(argv[2], NULL, 10) : (uint64_t)time(NULL) * 1000;
	for (i = 0; i < runs && failures < (until_wrong ? 1 : FAILURES_MAX); i++) {
		static struct world w;

		failures += !run(&w, seed + i, runs == 1);
	}
	printf("%lu histories from seed %" PRIu64 " in %.1f s: %lu went wrong\n", i, seed, (double)(clock_monotonic_ns() - began) / 1e9,
		failures);
	return failures > 0;
}
