/*
 * tests/sim/jobs.h — a campaign's histories dealt to several processes, which count in memory that they share.
 */
#ifndef TESTS_SIM_JOBS_H
#define TESTS_SIM_JOBS_H

#include <stddef.h>

#define JOBS_MAX 64

/* Zeroed memory that children share with their parent. Ends the process if there is none. */
void *jobs_shared(size_t bytes);
/* Calls work(job, data) for 0 … jobs-1, each in a process of its own (one alone: in this one). Returns how many of them ended
 * otherwise than by returning; what they had to say they said. */
unsigned jobs_run(unsigned jobs, void (*work)(unsigned job, void *data), void *data);

#endif
