/*
 * base/clock.h — the only place that asks for the time; the simulator links its own.
 * Nanoseconds as int64_t. No decision depends on the wall clock (P11): it names conflict-free things
 * like trash folders, ages trash and tombstones, and is shown to people.
 */
#ifndef BASE_CLOCK_H
#define BASE_CLOCK_H

#include <stdbool.h>
#include <stdint.h>

#define CLOCK_NS_PER_S INT64_C(1000000000)
#define CLOCK_NS_PER_MS INT64_C(1000000)

int64_t clock_wall_ns(void);	  /* CLOCK_REALTIME */
int64_t clock_monotonic_ns(void); /* CLOCK_MONOTONIC: intervals and time-outs */
int64_t clock_boot_ns(void);	  /* CLOCK_BOOTTIME: runs on in suspend; beside the wall clock it shows jumps */

/* Was the wall clock set since the last look, by more than CLOCK_JUMP_NS against boot time? Neither a suspended machine nor a clock
 * that is slewed does that. Zero-initialised: the first look, which sees no jump. */
#define CLOCK_JUMP_NS (5 * CLOCK_NS_PER_S)
struct clock_watch {
	bool looked;
	int64_t offset_ns; /* wall clock minus boot time */
};
bool clock_jumped(struct clock_watch *w, int64_t wall_ns, int64_t boot_ns);

#endif
