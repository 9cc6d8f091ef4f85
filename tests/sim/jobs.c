/* tests/sim/jobs.c — see tests/sim/jobs.h. */
#include "tests/sim/jobs.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

void *jobs_shared(size_t bytes)
{
	void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	if (p == MAP_FAILED) {
		perror("mmap");
		exit(2);
	}
	return p;
}

static unsigned bad_end(pid_t pid)
{
	int status;

	if (waitpid(pid, &status, 0) < 0) {
		perror("waitpid");
		return 1;
	}
	if (WIFSIGNALED(status))
		fprintf(stderr, "a process ended by signal %d (%s)\n", WTERMSIG(status), strsignal(WTERMSIG(status)));
	return status != 0;
}

unsigned jobs_run(unsigned jobs, void (*work)(unsigned job, void *data), void *data)
{
	pid_t pids[JOBS_MAX];
	unsigned bad = 0;

	if (jobs == 1) {
		work(0, data);
		return 0;
	}
	fflush(NULL);
	for (unsigned i = 0; i < jobs; i++) {
		pids[i] = fork();
		if (pids[i] < 0) {
			perror("fork");
			exit(2);
		}
		if (!pids[i]) {
			work(i, data);
			fflush(NULL);
			_exit(0);
		}
	}
	for (unsigned i = 0; i < jobs; i++)
		bad += bad_end(pids[i]);
	return bad;
}
