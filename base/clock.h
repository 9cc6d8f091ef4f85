/*
 * base/clock.h — the only place that asks for the time; the simulator links its own.
 * Nanoseconds as int64_t. No decision depends on the wall clock (P11): it names conflict-free things
 * like trash folders, ages trash and tombstones, and is shown to people.
 */
#ifndef BASE_CLOCK_H
#define BASE_CLOCK_H

#include <stdint.h>

#define CLOCK_NS_PER_S INT64_C(1000000000)
#define CLOCK_NS_PER_MS INT64_C(1000000)

int64_t clock_wall_ns(void);	  /* CLOCK_REALTIME */
int64_t clock_monotonic_ns(void); /* CLOCK_MONOTONIC: intervals and time-outs */
int64_t clock_boot_ns(void);	  /* CLOCK_BOOTTIME: runs on in suspend; beside the wall clock it shows jumps */

#endif
