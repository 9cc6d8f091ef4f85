/* tests/sim/engine_history.c — a history: its steps, and the quiet end; see tests/sim/engine.h. */
#include "tests/sim/engine.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define QUIET_MAX 12
#define RUN_ALL UINT32_MAX
#define DAY_NS (24 * 3600 * CLOCK_NS_PER_S)
#define YEAR_NS (365 * DAY_NS)

/* --- the plan --- */

static void plan_some(struct engine *e, enum step_kind kind, unsigned n)
{
	while (n-- && e->n_steps < STEPS_MAX)
		e->steps[e->n_steps++].kind = kind;
}

static void plan_feature(struct engine *e, enum feature f, enum step_kind kind, unsigned most)
{
	unsigned n = 1 + (unsigned)engine_below(e, most);

	if (engine_has(e, f))
		plan_some(e, kind, n);
}

void history_plan(struct engine *e)
{
	static const uint8_t sites[] = {2, 2, 2, 2, 3, 3, 3, 3, 4, 5};

	e->random = e->seed;
	e->features = (uint32_t)sim_random(&e->random) & (uint32_t)sim_random(&e->random);
	if (engine_one_in(e, 3))
		e->features |= (uint32_t)sim_random(&e->random);
	e->features &= e->allowed;
	e->n_sites = sites[engine_below(e, sizeof(sites))];
	e->grace_ns = engine_one_in(e, 2) ? 0 : INT64_MAX;
	plan_some(e, STEP_USER, USER_STEPS);
	plan_some(e, STEP_MEET, 4 + e->n_sites);
	plan_some(e, STEP_RUN, 4);
	plan_some(e, STEP_SCAN, 3);
	plan_feature(e, FEATURE_CUT, STEP_CUT, 3);
	plan_feature(e, FEATURE_STALL, STEP_STALL, 2);
	plan_feature(e, FEATURE_PAUSE, STEP_PAUSE, 2);
	plan_feature(e, FEATURE_MEDDLE, STEP_MEDDLE, 6);
	plan_feature(e, FEATURE_RESTART, STEP_RESTART, 2);
	plan_feature(e, FEATURE_PURGE, STEP_PURGE, 3);
	plan_feature(e, FEATURE_AWAY, STEP_AWAY, 2);
	plan_feature(e, FEATURE_CLOCK, STEP_CLOCK, 2);
	plan_feature(e, FEATURE_OPEN, STEP_OPEN, 6);
	plan_feature(e, FEATURE_CRASH, STEP_CRASH, 4);
	plan_feature(e, FEATURE_KILL, STEP_KILL, 4);
	plan_feature(e, FEATURE_FAULT, STEP_FAULT, 4);
	plan_feature(e, FEATURE_UNMOUNT, STEP_UNMOUNT, 2);
	plan_feature(e, FEATURE_RESTORE, STEP_SAVE, 2);
	plan_feature(e, FEATURE_RESTORE, STEP_RESTORE, 2);
	plan_feature(e, FEATURE_CLONE, STEP_CLONE, 1);
	plan_some(e, STEP_CHASE, engine_has(e, FEATURE_CHASE) ? 4 : 0);
	plan_some(e, STEP_BLACKOUT, engine_has(e, FEATURE_BLACKOUT) ? 3 : 0);
	for (unsigned i = e->n_steps; i > 1; i--) {
		unsigned k = (unsigned)engine_below(e, i);
		struct step x = e->steps[k];

		e->steps[k] = e->steps[i - 1];
		e->steps[i - 1] = x;
	}
	for (unsigned i = 0; i < e->n_steps; i++)
		e->steps[i].stream = sim_random(&e->random);
}

/* --- steps --- */

static struct site *some_site(struct engine *e)
{
	return &e->sites[engine_below(e, e->n_sites)];
}

/* Where a user is: anywhere, or always at the first one, and then nobody can come into conflict. */
static struct site *some_user(struct engine *e)
{
	return engine_has(e, FEATURE_SINGLE) ? &e->sites[0] : some_site(e);
}

static struct wire *some_wire(struct engine *e)
{
	size_t first = engine_below(e, WIRES_MAX);

	for (size_t i = 0; i < WIRES_MAX; i++)
		if (e->wires[(first + i) % WIRES_MAX].used)
			return &e->wires[(first + i) % WIRES_MAX];
	return NULL;
}

static void run_some(struct engine *e, unsigned most)
{
	wires_run(e, (unsigned)engine_below(e, most));
}

static void step_user(struct engine *e)
{
	struct site *s = some_user(e);

	user_act(s, &e->random);
	sim_advance((int64_t)engine_below(e, 5) * CLOCK_NS_PER_S);
	if (s->replica && !s->broken && engine_one_in(e, 3))
		(engine_has(e, FEATURE_LOOK) && engine_one_in(e, 2) ? site_look : site_scan)(s);
	run_some(e, 8);
}

static void meet(struct engine *e, struct site *a, struct site *b, bool live, enum way way)
{
	static const char *const ways[] = {"", ", to send only", ", to take only"};
	struct wire *w;

	if (a == b || wire_between(e, a, b) || !site_open(a) || !site_open(b) || a->broken || b->broken)
		return;
	w = wire_new(e, a, b, live, way);
	tell(e, "%c connects to %c%s%s", a->name, b->name, live ? ", to stay" : "", ways[way]);
	if (w && !e->quiet && engine_has(e, FEATURE_CUT) && engine_one_in(e, 3)) {
		w->cut_after = 1 + engine_below(e, engine_one_in(e, 2) ? 2000 : 20000);
		if (engine_one_in(e, 4))
			w->spoil_at = 1 + engine_below(e, (size_t)w->cut_after);
	}
	if (w && !e->quiet && engine_has(e, FEATURE_LIE) && engine_one_in(e, 3))
		wire_lie(w, (int)engine_below(e, 2));
}

static void step_meet(struct engine *e)
{
	struct site *a = some_site(e), *b = &e->sites[(size_t)(a - e->sites + 1) % e->n_sites];
	bool live;

	if (e->n_sites > 2 && engine_one_in(e, 2))
		b = some_site(e);
	live = engine_has(e, FEATURE_LIVE) && engine_one_in(e, 2);
	meet(e, a, b, live, engine_has(e, FEATURE_ONE_WAY) ? (enum way)engine_below(e, 3) : WAY_BOTH);
	if (engine_one_in(e, 2))
		wires_run(e, RUN_ALL);
	else
		run_some(e, 60);
}

static void step_run(struct engine *e)
{
	if (engine_one_in(e, 2))
		wires_run(e, RUN_ALL);
	else
		run_some(e, 100);
}

static void step_scan(struct engine *e)
{
	struct site *s = some_site(e);

	if (site_open(s) && !s->broken)
		site_scan(s);
}

static void step_cut(struct engine *e)
{
	struct wire *w = some_wire(e);

	if (w)
		wire_cut(w);
	run_some(e, 20);
}

static void step_stall(struct engine *e)
{
	struct wire *w = some_wire(e);
	size_t i = engine_below(e, 2);

	if (!w)
		return;
	w->stalled[i] = !w->stalled[i];
	w->excused = true;
	tell(e, "from %c to %c %s", w->end[i].site->name, w->end[!i].site->name, w->stalled[i] ? "nothing arrives" : "all arrives");
	run_some(e, 60);
}

static void step_pause(struct engine *e)
{
	struct site *s = some_site(e);

	s->paused = !s->paused;
	wires_excuse(s);
	tell(e, "%c %s", s->name, s->paused ? "stands still" : "goes on");
	run_some(e, 60);
}

/* A user will act at some call of what the replica does. */
static void step_meddle(struct engine *e)
{
	struct site *s = some_user(e);

	s->act_at = sim_disk_calls(s->disk) + 1 + engine_below(e, engine_one_in(e, 2) ? 60 : 600);
	s->act_stream = sim_random(&e->random);
	site_arm(s);
}

/* A user waits for what comes into the tree, and is there at the next call. */
static void step_chase(struct engine *e)
{
	struct site *s = some_user(e);

	s->chases = 1 + (unsigned)engine_below(e, 3);
	*s->landed = 0;
	s->act_stream = sim_random(&e->random);
	site_arm(s);
}

static void step_restart(struct engine *e)
{
	struct site *s = some_site(e);

	tell(e, "%c is restarted", s->name);
	site_close(s);
	site_open(s);
	run_some(e, 20);
}

static void step_purge(struct engine *e)
{
	struct site *s = some_site(e);

	if (site_open(s) && !s->broken)
		site_purge(s, 1000 * DAY_NS);
}

static void step_away(struct engine *e)
{
	tell(e, "time passes");
	sim_advance(engine_one_in(e, 2) ? 130 * CLOCK_NS_PER_S : 90 * DAY_NS);
	for (unsigned i = 0; i < WIRES_MAX; i++)
		e->wires[i].excused = true;
	wires_tick(e);
	run_some(e, 60);
}

static void step_clock(struct engine *e)
{
	struct site *s = some_site(e);
	int64_t by = (int64_t)engine_below(e, 20) * YEAR_NS - 10 * YEAR_NS;

	tell(e, "the clock of %c is set by %" PRId64 " years", s->name, by / YEAR_NS);
	sim_host_jump(s->host, by);
}

static void step_open(struct engine *e)
{
	user_hold(some_user(e), &e->random);
	run_some(e, 20);
}

static void step_die(struct engine *e, bool power)
{
	struct site *s = some_site(e);

	s->power = power;
	s->die_at = sim_disk_calls(s->disk) + 1 + engine_below(e, engine_one_in(e, 2) ? 60 : 600);
	site_arm(s);
}

static void step_crash(struct engine *e)
{
	step_die(e, true);
}

static void step_kill(struct engine *e)
{
	step_die(e, false);
}

/* A user writes something in place, that is scanned, he writes it again at once, and power is lost. */
static void step_blackout(struct engine *e)
{
	struct site *s = some_user(e);
	char path[USER_PATH_BYTES];
	struct file_stat st;

	sim_disk_sync(s->disk);
	for (int i = 0; i < 4 && (!i || sim_user_stat(s->disk, path, &st) || st.kind != FILE_KIND_REGULAR); i++)
		user_path(s, &e->random, path);
	user_rewrite(s, &e->random, path);
	sim_advance((int64_t)engine_below(e, 3) * CLOCK_NS_PER_S);
	if (site_open(s) && !s->broken)
		site_scan(s);
	if (!engine_one_in(e, 4))
		user_rewrite(s, &e->random, path);
	if (site_died(s))
		return;
	tell(e, "%c has no power", s->name);
	s->power = true;
	sim_disk_kill(s->disk);
}

/* Of one disk, or it is well again. */
static void step_fault(struct engine *e)
{
	static const int errors[] = {ENOSPC, EIO, EDQUOT, EACCES, EROFS};
	static const uint64_t calls[] = {SIM_CHANGES, SIM_BIT(FSYNC) | SIM_BIT(SYNCFS) | SIM_BIT(INDEX_SYNC),
		SIM_BIT(DIR_OPEN) | SIM_BIT(DIR_NEXT) | SIM_BIT(READ) | SIM_BIT(STAT_AT) | SIM_BIT(OPEN_READ)};
	struct site *s = some_site(e);
	size_t which = engine_below(e, 8);
	struct sim_fault f = {
		.calls = which < 3 ? calls[which] : UINT64_C(1) << engine_below(e, SIM_CALL_COUNT),
		.error = errors[engine_below(e, sizeof(errors) / sizeof(*errors))],
		.after = engine_below(e, engine_one_in(e, 2) ? 10 : 200),
		.times = engine_below(e, 4),
		.one_in = (unsigned)engine_below(e, 3) * 5,
	};

	s->excused = true;
	wires_excuse(s);
	if (which == 7) {
		sim_disk_heal(s->disk);
		sim_disk_read_only(s->disk, false);
		sim_disk_capacity(s->disk, 0);
		tell(e, "the disk of %c is well", s->name);
	} else if (which == 6) {
		s->full = true;
		sim_disk_capacity(s->disk, sim_disk_used(s->disk) + engine_below(e, 100000));
		tell(e, "the disk of %c is nearly full", s->name);
	} else if (which == 5) {
		sim_disk_read_only(s->disk, true);
		tell(e, "the disk of %c can't be written", s->name);
	} else {
		s->full = s->full || f.error == ENOSPC || f.error == EDQUOT;
		s->denied = s->denied || f.error == EACCES;
		sim_disk_fault(s->disk, &f);
		tell(e, "the disk of %c begins to fail: %s", s->name, strerror(f.error));
	}
	run_some(e, 40);
}

static void step_unmount(struct engine *e)
{
	struct site *s = some_site(e);

	tell(e, "the disk of %c is %s", s->name, s->mounted ? "unmounted" : "mounted");
	if (s->mounted)
		site_unmount(s, engine_one_in(e, 3));
	else
		site_mount(s);
	run_some(e, 40);
}

static void step_save(struct engine *e)
{
	struct site *s = some_site(e);

	if (!site_joined(s)) /* put back to that, it may become another folder with whom it meets */
		return;
	tell(e, "a copy is made of the disk of %c", s->name);
	site_save(s);
}

static void step_restore(struct engine *e)
{
	struct site *s = some_site(e);
	bool copied = engine_one_in(e, 2);

	if (!s->saved)
		return;
	tell(e, "%c is as it was when the copy was made%s", s->name, copied ? ", file by file" : "");
	e->restored = true;
	site_restore(s, copied);
	site_open(s);
	run_some(e, 20);
}

static void step_clone(struct engine *e)
{
	struct site *s = some_site(e), *clone;

	if (e->n_sites == SITES_MAX)
		return;
	e->cloned = true;
	clone = site_new(e, s->disk);
	if (engine_one_in(e, 2))
		sim_disk_crash(clone->disk, &e->random);
	tell(e, "%c is a clone of %c", clone->name, s->name);
	clone->excused = s->excused;
	clone->denied = s->denied;
	clone->full = s->full; /* its disk is as large */
	clone->stored = s->held_stored || s->stored;
	oracle_cloned(clone);
	site_open(clone);
}

static void (*const step_functions[STEP_KINDS])(struct engine *e) = {
	[STEP_USER] = step_user,
	[STEP_MEET] = step_meet,
	[STEP_RUN] = step_run,
	[STEP_SCAN] = step_scan,
	[STEP_CUT] = step_cut,
	[STEP_STALL] = step_stall,
	[STEP_PAUSE] = step_pause,
	[STEP_MEDDLE] = step_meddle,
	[STEP_RESTART] = step_restart,
	[STEP_PURGE] = step_purge,
	[STEP_AWAY] = step_away,
	[STEP_CLOCK] = step_clock,
	[STEP_OPEN] = step_open,
	[STEP_CRASH] = step_crash,
	[STEP_KILL] = step_kill,
	[STEP_FAULT] = step_fault,
	[STEP_UNMOUNT] = step_unmount,
	[STEP_SAVE] = step_save,
	[STEP_RESTORE] = step_restore,
	[STEP_CLONE] = step_clone,
	[STEP_CHASE] = step_chase,
	[STEP_BLACKOUT] = step_blackout,
};

/* A machine that died without a wire starts again, too. */
static void do_step(struct engine *e, unsigned i)
{
	e->at = i;
	e->random = e->steps[i].stream;
	if (e->told)
		fprintf(stderr, "[%u] ", i);
	if (step_functions[e->steps[i].kind])
		step_functions[e->steps[i].kind](e);
	wires_run(e, 1);
	if (e->told)
		fputc('\n', stderr);
}

/* --- the quiet end --- */

static void heal(struct engine *e)
{
	e->quiet = true;
	for (unsigned i = 0; i < e->n_sites; i++) {
		struct site *s = &e->sites[i];

		s->die_at = s->act_at = 0;
		s->chases = 0;
		site_arm(s);
		s->paused = false;
		site_drop_held(s);
		sim_disk_heal(s->disk);
		sim_disk_read_only(s->disk, false);
		sim_disk_capacity(s->disk, 0);
		if (!s->mounted)
			site_mount(s);
		s->acted = s->acted || s->excused;
	}
	for (unsigned i = 0; i < WIRES_MAX; i++) {
		struct wire *w = &e->wires[i];

		if (!w->used)
			continue;
		w->stalled[0] = w->stalled[1] = false;
		w->cut_after = 0;
		if (w->spoil_at && w->moved >= w->spoil_at)
			wire_cut(w); /* who waits for the end of a frame that is none gives up after a while */
		w->spoil_at = 0;
		for (int k = 0; k < 2; k++)
			if (w->end[k].session)
				session_finish(w->end[k].session);
	}
	wires_run(e, RUN_ALL);
	for (unsigned i = 0; i < e->n_sites; i++) {
		if (e->sites[i].excused) /* as a daemon does with an index that failed */
			site_close(&e->sites[i]);
		e->sites[i].excused = false;
		if (!site_open(&e->sites[i]))
			wrong(e, WRONG_OTHER, "%c can't be opened", e->sites[i].name);
	}
}

/* Each meets the first, twice. */
static void meet_all(struct engine *e)
{
	for (unsigned i = 1; i < e->n_sites; i++) {
		meet(e, &e->sites[0], &e->sites[i], false, WAY_BOTH);
		wires_run(e, RUN_ALL);
	}
	for (unsigned i = e->n_sites - 1; e->n_sites > 2 && --i > 0;) {
		meet(e, &e->sites[i], &e->sites[0], false, WAY_BOTH);
		wires_run(e, RUN_ALL);
	}
}

static void be_quiet(struct engine *e)
{
	unsigned round = 0;

	tell(e, "quiet");
	e->at = e->n_steps;
	e->random = e->seed ^ UINT64_C(0x5175696574);
	heal(e);
	for (unsigned i = 0; i < WIRES_MAX; i++)
		if (e->wires[i].used)
			wrong(e, WRONG_OTHER, "the session of %c and %c stands still", e->wires[i].end[0].site->name,
				e->wires[i].end[1].site->name);
	do
		meet_all(e);
	while (!judge_alike(e) && ++round < QUIET_MAX);
	if (round == QUIET_MAX) {
		if (e->told)
			judge_print(e);
		wrong(e, WRONG_DIVERGED, "they do not become alike");
	}
}

/* Lines may be cut, and stand still where a byte was changed. */
static void become_one_folder(struct engine *e)
{
	bool joined;

	do {
		meet_all(e);
		for (unsigned i = 0; i < WIRES_MAX; i++)
			if (e->wires[i].used)
				wire_cut(&e->wires[i]);
		wires_run(e, RUN_ALL);
		joined = true;
		for (unsigned i = 0; i < e->n_sites; i++)
			joined = joined && site_joined(&e->sites[i]);
	} while (!joined);
}

uint64_t history_run(struct engine *e)
{
	unsigned sites = e->n_sites;
	uint64_t trace;

	sim_begin(e->seed);
	oracle_new(e);
	e->n_sites = 0;
	e->random = e->seed ^ UINT64_C(0x7369746573);
	while (e->n_sites < sites)
		site_open(site_new(e, NULL));
	if (sites > 3 || engine_has(e, FEATURE_CLONE) || engine_one_in(e, 2)) /* two pairs that meet first are two folders */
		become_one_folder(e);
	for (unsigned i = 0; i < e->n_steps; i++)
		if (!e->keep || e->keep[i])
			do_step(e, i);
	be_quiet(e);
	judge_end(e);
	for (unsigned i = 0; i < e->n_sites; i++)
		site_free(&e->sites[i]);
	if (sim_open_descriptors())
		wrong(e, WRONG_OTHER, "%zu descriptors are left open", sim_open_descriptors());
	oracle_free(e);
	trace = sim_trace();
	sim_end();
	return trace;
}
