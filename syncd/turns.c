/* syncd/turns.c — see syncd/turns.h. */
#include "syncd/turns.h"

#include <stddef.h>

static unsigned count(const struct turns *t, enum turn_state state)
{
	unsigned n = 0;

	for (const struct turn *x = t->first; x; x = x->after)
		n += x->state == state;
	return n;
}

unsigned turns_open(const struct turns *t)
{
	return count(t, TURN_HAS) + count(t, TURN_ENDS);
}

unsigned turns_waiting(const struct turns *t)
{
	return count(t, TURN_WAITS);
}

static void enter(struct turns *t, struct turn *x, enum turn_state state, int64_t now_ns)
{
	struct turn **at = &t->first;

	while (*at)
		at = &(*at)->after;
	*x = (struct turn){.state = state, .since_ns = now_ns};
	*at = x;
}

static const struct turn *first_waiting(const struct turns *t)
{
	const struct turn *x = t->first;

	while (x && x->state != TURN_WAITS)
		x = x->after;
	return x;
}

bool turns_ask(struct turns *t, struct turn *x, int64_t now_ns)
{
	if (x->state == TURN_NONE)
		enter(t, x, TURN_WAITS, now_ns);
	if (x->state != TURN_WAITS)
		return true;
	if (t->max && (turns_open(t) >= t->max || first_waiting(t) != x))
		return false;
	turns_end(t, x);
	enter(t, x, TURN_HAS, now_ns);
	return true;
}

bool turns_over(struct turns *t, struct turn *x, int64_t now_ns)
{
	if (x->state != TURN_HAS || now_ns - x->since_ns < TURNS_LEAST_NS || turns_waiting(t) <= count(t, TURN_ENDS))
		return false;
	x->state = TURN_ENDS;
	return true;
}

void turns_end(struct turns *t, struct turn *x)
{
	struct turn **at = &t->first;

	while (*at && *at != x)
		at = &(*at)->after;
	if (*at)
		*at = x->after;
	*x = (struct turn){0};
}
