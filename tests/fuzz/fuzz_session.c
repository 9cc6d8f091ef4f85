/*
 * tests/fuzz/fuzz_session.c — two real replicas and their sessions; what the one says is tampered with on its way to the other.
 *
 * Input: u8 seed of the world; then for each message, in the order in which they are said: u8 what becomes of it (see tamper).
 * A message for which no byte is left passes. However it is tampered with, both sessions end, and nothing is put in place that
 * neither side had.
 */
#include <stdbool.h>

#define WORLD_STOP() abort()
#include "tests/sim/world.h"

#define SUMS_MAX 64

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static struct cursor script;

static void say(struct wire *wire, int i, uint8_t type, const uint8_t *p, size_t n)
{
	if (n <= message_max_bytes(type))
		(void)frame_write(wire->writer[i], &wire->pipe[i], type, p, n, false);
}

static void say_edited(struct wire *wire, int i, uint8_t type, const uint8_t *p, size_t n)
{
	struct buf b = BUF_INIT;

	put_bytes(&b, p, n);
	for (size_t k = 1 + get_u8(&script) % 8; k-- && n;) {
		size_t at = get_u16(&script) % n;

		b.data[at] = get_u8(&script);
	}
	say(wire, i, type, b.data, b.len);
	buf_deinit(&b);
}

static void tamper(struct wire *wire, int i, uint8_t type, const uint8_t *p, size_t n)
{
	uint8_t what = cursor_left(&script) ? get_u8(&script) : 0;
	size_t length;

	if (what < 160) {
		say(wire, i, type, p, n);
	} else if (what < 168) {
		/* never said */
	} else if (what < 180) {
		say(wire, i, type, p, n);
		say(wire, i, type, p, n);
	} else if (what < 190) {
		say(wire, i, get_u8(&script), p, n);
	} else if (what < 225) {
		say_edited(wire, i, type, p, n);
	} else if (what < 235) {
		say(wire, i, type, p, n ? get_u16(&script) % n : 0);
	} else {
		type = what < 245 ? type : get_u8(&script);
		length = get_u16(&script);
		length = length < cursor_left(&script) ? length : cursor_left(&script);
		say(wire, i, type, script.p, length);
		script.p += length;
	}
}

static size_t sums_of(struct site *s, uint64_t *ret)
{
	char *argv[] = {s->root, NULL};
	FTS *fts = fts_open(argv, FTS_PHYSICAL | FTS_NOCHDIR, NULL);
	size_t n = 0;
	FTSENT *e;

	while ((e = fts_read(fts)))
		if (e->fts_level == 1 && strcmp(e->fts_name, ".syncd") == 0)
			fts_set(fts, e, FTS_SKIP);
		else if (e->fts_info == FTS_F && n < SUMS_MAX)
			ret[n++] = world_sum_of(e->fts_path);
	fts_close(fts);
	return n;
}

static void make_tree(struct world *w)
{
	struct site *a = &w->sites[0], *b = &w->sites[1];
	static uint8_t big[70000];
	uint64_t random = 1;
	struct wire *wire;

	for (size_t i = 0; i < sizeof(big); i++)
		big[i] = (uint8_t)test_random(&random);
	site_mkdir(a, "d");
	site_write(a, "d/x", "x");
	site_write(a, "d/y", "y");
	site_write(a, "gone", "gone");
	site_write_bytes(a, "big", big, sizeof(big));
	site_symlink(a, "link", "d/x");
	wire = wire_new(w, a, b, NULL);
	wire->piece = WORLD_PIPE_BYTES; /* fuzz_frame has the small ones */
	world_run(w);
	wire_free(wire);
	big[60000]++;
	site_write_bytes(a, "big", big, sizeof(big));
	site_write(a, "d/x", "edit of a");
	site_write(b, "d/x", "edit of b");
	site_remove(a, "gone");
	site_write(b, "new", "new of b");
	site_rename(b, "d/y", "z");
}

static void expect_known(struct site *s, const uint64_t *known, size_t n)
{
	uint64_t now[SUMS_MAX];

	for (size_t m = sums_of(s, now); m--;) {
		size_t k = 0;

		while (k < n && known[k] != now[m])
			k++;
		if (k == n)
			abort();
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	uint64_t known[2 * SUMS_MAX];
	struct wire *wire;
	struct world w;
	size_t sums;

	script = cursor_over(data, n);
	world_begin(&w, get_u8(&script) % 4, 2);
	make_tree(&w);
	sums = sums_of(&w.sites[0], known);
	sums += sums_of(&w.sites[1], known + sums);
	wire = wire_new(&w, &w.sites[0], &w.sites[1], NULL);
	wire->piece = WORLD_PIPE_BYTES;
	wire_tamper(wire, tamper);
	world_run(&w);
	for (int i = 0; i < 2; i++) /* what waits gives up after two minutes of silence */
		session_tick(wire->end[i].session, clock_monotonic_ns() + SESSION_IDLE_NS + CLOCK_NS_PER_S);
	world_run(&w);
	for (int i = 0; i < 2; i++)
		if (end_state(&wire->end[i]) != SESSION_ENDED)
			abort();
	wire_free(wire);
	for (size_t i = 0; i < 2; i++) {
		site_expect_tidy(&w.sites[i]);
		expect_known(&w.sites[i], known, sums);
	}
	world_end(&w);
	return 0;
}
