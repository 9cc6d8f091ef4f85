/*
 * tests/unit/tombstones/decide_driver.c — decide() for cases given as lines of numbers, for
 * model/decision_table.py.
 *
 * stdin, one case a line:  policy n prefer… taker-loses  n (inc parent from replica)…  our-K
 * their-K  ours theirs stdout, one a line:      action attributes-moved mtime-moved
 * privileges-cleared same-dot record vector, dots:            n (inc counter)… record: 0 | 1 live
 * kind content mode uid gid mtime vv dots lost adots mdots
 *
 * A content is a small number; it stands for a root of that number, and for a symlink's target too.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "tombstones/decide.h"

#define PREFER_MAX 16

static void fail(const char *what)
{
	fprintf(stderr, "decide-driver: %s\n", what);
	exit(2);
}

static void need(int r, const char *what)
{
	if (r < 0)
		fail(what);
}

/* The next number of the line. */
static int64_t number(char **p)
{
	char *end;
	int64_t v;

	errno = 0;
	v = strtoll(*p, &end, 10);
	if (errno || end == *p)
		fail("a number is missing");
	*p = end;
	return v;
}

static uint64_t natural(char **p)
{
	int64_t v = number(p);

	if (v < 0)
		fail("a negative number");
	return (uint64_t)v;
}

static struct version_dot read_dot(char **p)
{
	uint64_t inc = natural(p);

	return (struct version_dot){inc, natural(p)};
}

static void read_vector(char **p, struct version_vector *ret)
{
	for (uint64_t n = natural(p); n > 0; n--)
		need(version_vector_raise(ret, read_dot(p), NULL), "vector");
}

static void read_dots(char **p, struct version_dots *ret)
{
	for (uint64_t n = natural(p); n > 0; n--)
		need(version_dots_add(ret, read_dot(p)), "dots");
}

static void read_lineage(char **p, struct version_lineage *l)
{
	for (uint64_t n = natural(p); n > 0; n--) {
		struct version_incarnation i;

		i.inc = natural(p);
		i.parent = natural(p);
		i.from = natural(p);
		i.replica = natural(p);
		need(version_lineage_add(l, &i), "lineage");
	}
}

static void content_of(struct record *r, uint64_t content)
{
	if (!r->live || r->kind == RECORD_DIRECTORY)
		return;
	for (int i = 0; i < 8; i++) /* so that memcmp orders as the numbers do */
		r->content.root.bytes[i] = (uint8_t)(content >> (56 - 8 * i));
	if (r->kind == RECORD_SYMLINK && asprintf(&r->target, "%" PRIu64, content) < 0)
		fail("no memory");
}

/* Returns ret, or NULL for an absent record. */
static const struct record *read_record(char **p, struct record *ret)
{
	uint64_t content;

	if (!natural(p))
		return NULL;
	ret->live = natural(p);
	ret->kind = (uint8_t)natural(p);
	content = natural(p);
	ret->mode = (uint16_t)natural(p);
	ret->uid = (uint32_t)natural(p);
	ret->gid = (uint32_t)natural(p);
	ret->mtime_ns = number(p);
	read_vector(p, &ret->vv);
	read_dots(p, &ret->dots);
	read_dots(p, &ret->lost);
	read_dots(p, &ret->adots);
	read_dots(p, &ret->mdots);
	content_of(ret, content);
	return ret;
}

static void print_pairs(const struct version_dot *v, size_t n)
{
	printf(" %zu", n);
	for (size_t i = 0; i < n; i++)
		printf(" %" PRIu64 " %" PRIu64, v[i].inc, v[i].counter);
}

static void print_record(const struct record *r)
{
	uint64_t content = 0;

	for (int i = 0; i < 8; i++)
		content = content << 8 | r->content.root.bytes[i];
	if (r->kind == RECORD_SYMLINK && (!r->target || strtoull(r->target, NULL, 10) != content))
		fail("a target was not carried along");
	printf(" 1 %d %u %" PRIu64 " %u %u %u %" PRId64, r->live, r->kind, content, r->mode, r->uid,
		r->gid, r->mtime_ns);
	print_pairs(r->vv.v, r->vv.n);
	print_pairs(r->dots.v, r->dots.n);
	print_pairs(r->lost.v, r->lost.n);
	print_pairs(r->adots.v, r->adots.n);
	print_pairs(r->mdots.v, r->mdots.n);
}

static void answer(const struct decide_input *in)
{
	struct decide_result d = {0};
	bool record;

	need(decide(in, &d), "decide");
	record = d.action == DECIDE_TAKE || d.action == DECIDE_MERGE || d.action == DECIDE_ASIDE || d.action == DECIDE_RENEW;
	printf("%s %d %d %d %d", decide_action_name(d.action), d.attributes_moved, d.mtime_moved,
		d.privileges_cleared, d.same_dot);
	if (record)
		print_record(&d.record);
	else
		printf(" 0");
	putchar('\n');
	decide_result_deinit(&d);
}

static void run_line(char *p)
{
	uint64_t prefer[PREFER_MAX];
	struct decide_policy policy = {.prefer = prefer};
	struct version_vector our_k = {0}, their_k = {0};
	struct record ours = {0}, theirs = {0};
	struct version_lineage *l;
	struct decide_input in = {.our_k = &our_k, .their_k = &their_k, .policy = &policy};

	policy.kind = (enum decide_policy_kind)natural(&p);
	policy.n_prefer = natural(&p);
	if (policy.n_prefer > PREFER_MAX)
		fail("too many preferred members");
	for (size_t i = 0; i < policy.n_prefer; i++)
		prefer[i] = natural(&p);
	in.taker_loses = natural(&p);
	need(version_lineage_new(&l), "lineage");
	read_lineage(&p, l);
	in.lineage = l;
	read_vector(&p, &our_k);
	read_vector(&p, &their_k);
	in.ours = read_record(&p, &ours);
	in.theirs = read_record(&p, &theirs);
	answer(&in);
	record_deinit(&ours);
	record_deinit(&theirs);
	version_vector_deinit(&our_k);
	version_vector_deinit(&their_k);
	version_lineage_free(l);
}

int main(void)
{
	cleanup_free char *line = NULL;
	size_t cap = 0;

	while (getline(&line, &cap, stdin) > 0)
		run_line(line);
	return ferror(stdin) || fflush(stdout) ? 2 : 0;
}
