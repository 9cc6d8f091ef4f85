/*
 * syncd/turns.h — at most so many sessions at a time, and everybody has his turn. Pure: the time is passed in.
 *
 * Who wants a session asks, and asks again from time to time until he may. Who has waited longest is first. Who has had his turn for
 * TURNS_LEAST_NS is to end it once he is idle, if somebody waits: a session stays connected as long as nobody minds.
 */
#ifndef SYNCD_TURNS_H
#define SYNCD_TURNS_H

#include <stdbool.h>
#include <stdint.h>

#define TURNS_LEAST_NS INT64_C(10000000000)

enum turn_state { TURN_NONE, TURN_WAITS, TURN_HAS, TURN_ENDS };

/* Zero-initialised: nothing is wanted. Part of what has the session; it must not move until turns_end. */
struct turn {
	enum turn_state state;
	int64_t since_ns;   /* that it is in this state; but for TURN_ENDS */
	struct turn *after; /* in the order in which they asked, or began */
};

struct turns {
	unsigned max; /* 0: no limit */
	struct turn *first;
};

/* May it begin? It has its turn from true on, and waits from false on. */
bool turns_ask(struct turns *t, struct turn *x, int64_t now_ns);
/* It is idle: must it end, for others? It is to be ended from true on. */
bool turns_over(struct turns *t, struct turn *x, int64_t now_ns);
void turns_end(struct turns *t, struct turn *x); /* in any state */
unsigned turns_open(const struct turns *t);
unsigned turns_waiting(const struct turns *t);

#endif
