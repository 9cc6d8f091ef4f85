/*
 * tombstones/line.c — see tombstones/line.h.
 *
 * The line is walked from its end: incarnation i counted up to where its child left it, the last one up to what was counted.
 */
#include "tombstones/line.h"

static struct version_dot before(struct version_dot at, const struct version_lineage *l)
{
	const struct version_incarnation *i = version_lineage_find(l, at.inc);

	return i ? (struct version_dot){i->parent, i->from} : (struct version_dot){0, 0};
}

/* What was counted of an incarnation of the line; 0: it is none of the line. */
static uint64_t counted(const struct line *line, uint64_t inc, const struct version_lineage *l)
{
	struct version_dot at = line->last;

	while (at.inc != inc && at.inc != line->first && at.inc)
		at = before(at, l);
	return at.inc == inc ? at.counter : 0;
}

bool line_exceeded(const struct line *line, const struct version_vector *v, const struct version_lineage *l)
{
	const struct version_incarnation *first = line->first ? version_lineage_find(l, line->first) : NULL;

	if (!first)
		return false;
	for (size_t i = 0; i < v->n; i++) {
		uint64_t inc = v->v[i].inc, n;

		if (inc != line->first && !version_lineage_implies(l, inc, (struct version_dot){line->first, first->from + 1}))
			continue;
		n = counted(line, inc, l);
		if (!n || v->v[i].counter > n)
			return true;
	}
	return false;
}

struct version_dot line_named(const struct line *line, const struct version_vector *v, const struct version_lineage *l)
{
	struct version_dot at = line->last;

	while (line->first && at.inc) {
		uint64_t n = version_vector_get(v, at.inc);
		bool end = at.inc == line->first;

		if (n)
			return (struct version_dot){at.inc, n < at.counter ? n : at.counter};
		at = before(at, l);
		if (end)
			break;
	}
	return at;
}

bool line_after(const struct line *line, struct version_dot point, struct version_dot dot, const struct version_lineage *l)
{
	struct version_dot at = line->last;

	while (line->first && at.inc) {
		if (at.inc == point.inc)
			return dot.inc == at.inc && dot.counter > point.counter;
		if (at.inc == dot.inc)
			return true;
		if (at.inc == line->first)
			break;
		at = before(at, l);
	}
	return false;
}

int line_cut(const struct line *line, struct version_dot point, struct version_vector *v, const struct version_lineage *l)
{
	size_t kept = 0;

	for (size_t i = 0; i < v->n; i++)
		if (!line_after(line, point, v->v[i], l))
			v->v[kept++] = v->v[i];
	if (kept == v->n)
		return 0;
	v->n = kept;
	if (point.inc) {
		int r = version_vector_raise(v, point, l);

		if (r < 0)
			return r;
	}
	return LINE_CUT;
}
