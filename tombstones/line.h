/*
 * tombstones/line.h — the incarnations that a replica drew since its start, each the child of the one before, and what others
 * name of them. Pure.
 *
 * Who is restored while it runs (a snapshot of its memory and disk) counts on where the snapshot was taken, and gives names to
 * events that another past of its own gave to others already. It notices when somebody names more of its line than it
 * counted, or another line that left it. All that it counted above what that peer had named before (in what we
 * remember: so it was counted before the snapshot) may then mean two things, and is recorded anew: tombstones/anew.h.
 * Incarnations from before the start are not looked at: a disk that was restored while nothing ran has given no name twice.
 */
#ifndef TOMBSTONES_LINE_H
#define TOMBSTONES_LINE_H

#include "merkle/version.h"

/* Zero: nothing was counted since the start. */
struct line {
	uint64_t first;		 /* drawn first since the start */
	struct version_dot last; /* drawn last, and what was counted there. Also without `first`: of the time before */
};

/* Does v name more of the line than was counted, or an incarnation that another than us let descend from it? */
bool line_exceeded(const struct line *line, const struct version_vector *v, const struct version_lineage *l);
/* The farthest point of the line that v names; where the line began ({0,0}: it has no parent) if it names none of it. */
struct version_dot line_named(const struct line *line, const struct version_vector *v, const struct version_lineage *l);
/* Was the dot counted on this line after that point (one of line_named's)? */
bool line_after(const struct line *line, struct version_dot point, struct version_dot dot, const struct version_lineage *l);
/* Take back what v knows of the line after that point. 0, LINE_CUT where there was something; as version_vector_raise. */
enum line_outcome { LINE_CUT = 1 };
int line_cut(const struct line *line, struct version_dot point, struct version_vector *v, const struct version_lineage *l);

#endif
