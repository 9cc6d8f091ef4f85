/* tests/sim/engine_site.c — replicas on their machines: opened, scanned, dying, brought back; see tests/sim/engine.h. */
#include "tests/sim/engine.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tombstones/purge.h"
#include "tombstones/trash.h"
#include "transfer/apply.h"

#define RECENT_MANY 10000 /* deletions, so that any other is one too many */

/* --- what goes on at calls of its disk --- */

static void on_call(struct sim_disk *d, enum sim_call call, uint64_t n, void *data)
{
	struct site *s = data;

	if (n == s->act_at) {
		uint64_t stream = s->act_stream;

		s->act_at = 0;
		tell(s->engine, "  at %s:", sim_call_name(call));
		s->meddled = true;
		user_act(s, &stream);
	}
	if (s->chases && *s->landed) {
		tell(s->engine, "  at %s, just behind %s:", sim_call_name(call), s->landed);
		s->chases--;
		s->meddled = true;
		user_act_at(s, &s->act_stream, s->landed);
	}
	*s->landed = 0;
	if (n == s->die_at) {
		s->die_at = 0;
		tell(s->engine, "  %c dies at %s", s->name, sim_call_name(call));
		sim_disk_kill(d);
	}
}

bool site_joined(const struct site *s)
{
	struct store_folder folder;

	if (!s->replica)
		return false;
	store_folder(replica_store(s->replica), &folder);
	return folder.standing == STORE_JOINED;
}

void site_arm(struct site *s)
{
	sim_disk_hook(s->disk, s->die_at || s->act_at || s->chases ? on_call : NULL, s);
}

bool site_died(const struct site *s)
{
	return sim_disk_killed(s->disk);
}

/* --- opening --- */

static struct sim_disk *new_disk(struct engine *e, struct sim_host *h)
{
	static const int64_t ticks[] = {1, 4 * CLOCK_NS_PER_MS, CLOCK_NS_PER_S, 2 * CLOCK_NS_PER_S};
	struct sim_disk_options o = sim_disk_usual;
	bool crashes = engine_has(e, FEATURE_CRASH) || engine_has(e, FEATURE_FAULT) || engine_has(e, FEATURE_BLACKOUT);

	o.never_crashes = !crashes;
	if (engine_has(e, FEATURE_DISKS)) {
		o.order = (enum sim_order)engine_below(e, 3);
		o.abilities.exchange = o.order != SIM_SPLIT && !engine_one_in(e, 4);
		o.abilities.no_replace = o.abilities.exchange || engine_one_in(e, 2);
		o.abilities.reflink = engine_one_in(e, 2);
		o.abilities.lease = !engine_one_in(e, 4);
		o.generations = engine_one_in(e, 2);
		o.birth_times = engine_one_in(e, 2);
		o.new_inodes = engine_one_in(e, 2);
		o.rename_ctime = engine_one_in(e, 2);
		o.tick_ns = ticks[engine_below(e, 4)];
		o.abilities.time_granularity_ns = engine_one_in(e, 2) ? o.tick_ns : 1;
	}
	if (engine_has(e, FEATURE_EXACT) && o.tick_ns < CLOCK_NS_PER_S) {
		o.tick_ns = 4 * CLOCK_NS_PER_MS;
		o.abilities.exact_times = o.abilities.time_granularity_ns == 1;
	}
	o.tails_lost = engine_has(e, FEATURE_BLACKOUT);
	/* Older ones, nobody can see (DESIGN.md, Known); nor by a clock that was set since */
	if (engine_has(e, FEATURE_STALE) && !engine_has(e, FEATURE_CLOCK))
		o.stale_ns = 2 * CLOCK_NS_PER_S;
	return sim_disk_new(h, &o);
}

struct site *site_new(struct engine *e, const struct sim_disk *from)
{
	struct site *s = &e->sites[e->n_sites++];

	*s = (struct site){.engine = e, .name = (char)('a' + (s - e->sites)), .mounted = true, .held = -1, .acted = true};
	s->host = sim_host_new();
	s->disk = from ? sim_disk_clone(from, s->host) : new_disk(e, s->host);
	s->made = from != NULL;
	snprintf(s->mount, sizeof(s->mount), "/%c", s->name);
	sim_mount(s->disk, s->mount);
	if (ignore_new(&s->ignore))
		wrong(e, WRONG_OTHER, "ignore_new");
	oracle_watch(s);
	return s;
}

void site_free(struct site *s)
{
	site_drop_held(s);
	site_close(s);
	ignore_free(s->ignore);
}

void site_unmount(struct site *s, bool other)
{
	sim_unmount(s->mount);
	s->mounted = false;
	s->excused = true;
	wires_excuse(s);
	if (!other)
		return;
	s->other = sim_disk_new(s->host, NULL);
	sim_mount(s->other, s->mount);
}

void site_mount(struct site *s)
{
	if (s->other) {
		sim_unmount(s->mount);
		sim_disk_free(s->other);
		s->other = NULL;
	}
	sim_mount(s->disk, s->mount);
	s->mounted = true;
}

void site_save(struct site *s)
{
	if (s->saved)
		sim_disk_free(s->saved);
	s->saved = sim_disk_clone(s->disk, s->host);
	if (engine_one_in(s->engine, 2))
		sim_disk_crash(s->saved, &s->engine->random);
}

void site_restore(struct site *s, bool copied)
{
	bool whole = true;

	site_close(s);
	site_drop_held(s);
	oracle_before(s);
	if (!copied) {
		sim_disk_restore(s->disk, s->saved);
	} else {
		sim_user_remove(s->disk, "");
		whole = sim_user_copy(s->saved, "", s->disk, "") == 0;
		sim_disk_sync(s->disk);
	}
	oracle_after(s, ORACLE_RESTORE);
	if (!whole || wires_heard(s)) /* without all of its index it remembers no deletions */
		oracle_heard(s->engine);
	s->acted = s->excused = s->older = true;
}

void site_drop_held(struct site *s)
{
	if (s->held >= 0)
		sim_user_close(s->held);
	if (s->held_stored) { /* no stamp says so: what is closed is hashed */
		sim_host_enter(s->host);
		s->distrust_ns = clock_wall_ns();
	}
	s->held = -1;
	s->held_taken = s->held_stored = false;
}

/* 0, or what is in the way and has its reason. */
static int checked(struct site *s, const char *what, int r)
{
	if (r && !site_died(s) && !s->excused && s->mounted)
		wrong(s->engine, WRONG_OTHER, "%c: %s: %d (%s)", s->name, what, r, file_error_text(r));
	if (r)
		tell(s->engine, "  %c: %s: %s", s->name, what, file_error_text(r));
	return r;
}

bool site_open(struct site *s)
{
	const struct store_options options = {.create = !s->made};
	struct store *store = NULL;
	int r;

	if (s->replica)
		return true;
	if (site_died(s))
		return false;
	sim_host_enter(s->host);
	r = checked(s, "store_open", store_open(&store, s->mount, &options));
	if (r == 0)
		r = checked(s, "replica_open", replica_open(&s->replica, store));
	if (r == 0)
		r = checked(s, "apply_recover", apply_recover(s->replica, NULL));
	s->broken = false;
	s->made = s->made || s->replica;
	if (r) {
		replica_close(s->replica);
		s->replica = NULL;
	}
	return r == 0;
}

void site_close(struct site *s)
{
	wires_of_site_end(s);
	sim_host_enter(s->host);
	replica_close(s->replica);
	s->replica = NULL;
	s->dirty = s->changed = s->broken = s->seen = false;
}

/* --- work --- */

void site_recover(struct site *s)
{
	sim_host_enter(s->host);
	if (checked(s, "apply_recover", apply_recover(s->replica, NULL)) == 0)
		s->broken = false;
	else if (!site_died(s))
		site_close(s); /* and is opened again later */
}

static void note_left(const char *path, enum scan_what what, int error, void *data)
{
	bool *left = data;

	(void)path, (void)what;
	*left = *left || error;
}

/* left: something that it saw, or did not find, is not recorded yet. */
static void scanned(struct site *s, const struct observe_result *seen, bool left, bool acted)
{
	const bool whole = !seen->raced && !seen->unsettled && !seen->held && !left;

	if (seen->events || seen->raced || seen->unsettled || seen->held || seen->scan.errors)
		tell(s->engine,
			"  %c scanned: %" PRIu64 " events (%" PRIu64 " deletions), %" PRIu64 " raced, %" PRIu64 " unsettled, %" PRIu64
			" held, %" PRIu64 " errors",
			s->name, seen->events, seen->deleted, seen->raced, seen->unsettled, seen->held, seen->scan.errors);
	s->changed = s->changed || seen->events;
	s->dirty = s->dirty || seen->raced;
	s->acted = s->acted || (acted && !whole);
	s->seen = whole && !seen->scan.errors && !s->acted;
	if (seen->events && !acted && !s->acted && !oracle_linked(s))
		wrong(s->engine, WRONG_EVENT, "%c: a scan made %" PRIu64 " events, though no user did anything", s->name, seen->events);
}

static uint64_t head_seq(struct site *s)
{
	struct index_counts counts = {0};
	struct index_txn *t = NULL;

	if (index_begin_read(replica_index(s->replica), &t) == 0)
		(void)index_counts(t, &counts);
	index_abort(t);
	return counts.head_seq;
}

/* May there be other bytes than a complete scan recorded, under the stamp that it saw? */
static bool hides(const struct engine *e)
{
	return engine_has(e, FEATURE_STORE) || engine_has(e, FEATURE_CRASH) || engine_has(e, FEATURE_BLACKOUT);
}

static void observe(struct site *s, const struct observe_path *paths, size_t n)
{
	bool left = false;
	const bool whole = !*paths->path, holds = !s->engine->quiet && engine_has(s->engine, FEATURE_HOLD) && engine_one_in(s->engine, 2);
	const struct observe_options options = {
		.replica = s->replica,
		.confirmed = !holds,
		.recent = holds ? RECENT_MANY : 0,
		.tell = note_left,
		.tell_data = &left,
	};
	const struct scan_options scan = {.store = replica_store(s->replica), .ignore = s->ignore};
	struct observe_result seen = {0};
	int64_t distrust_ns = s->distrust_ns;
	bool acted = s->acted;
	uint64_t before_seq;
	int r;

	s->dirty = s->dirty && !whole;
	s->acted = s->meddled = false;
	s->distrust_ns = 0;
	sim_host_enter(s->host);
	before_seq = head_seq(s);
	r = observe_run(&options, &scan, paths, n, NULL, NULL, &seen);
	if (r || site_died(s) || !whole) {
		s->acted = s->acted || acted;
		s->distrust_ns = distrust_ns;
	}
	if (site_died(s))
		return;
	if (r == STORE_ROOT_CHANGED && !s->mounted) {
		tell(s->engine, "  %c: the root is not there", s->name);
		site_close(s);
	} else if (checked(s, "observe_run", r) == 0) {
		/* a power loss may have left what a user wrote under old times */
		s->older = s->older && replica_suspect(s->replica);
		if (seen.raced || seen.unsettled || seen.held || seen.scan.errors || left)
			s->distrust_ns = distrust_ns;
		scanned(s, &seen, left, acted || s->excused || s->stored || (distrust_ns && hides(s->engine)));
		if (seen.deleted && !s->meddled)
			oracle_deleted(s, before_seq);
	}
}

void site_scan(struct site *s)
{
	observe(s, &(struct observe_path){.path = "", .rehash_before_ns = s->distrust_ns}, 1);
}

void site_look(struct site *s)
{
	char at[3][USER_PATH_BYTES];
	struct observe_path paths[3] = {0};
	size_t n = 1 + engine_below(s->engine, 3);

	for (size_t i = 0; i < n; i++) {
		user_path(s, &s->engine->random, at[i]);
		paths[i] = (struct observe_path){.path = at[i], .shallow = !engine_one_in(s->engine, 3), .rehash_before_ns = s->distrust_ns};
		tell(s->engine, "  %c looks at %s%s", s->name, at[i], paths[i].shallow ? "" : " and below");
	}
	observe(s, paths, n);
}

void site_purge(struct site *s, int64_t later_ns)
{
	struct purge_policy policy = {.member_expiry_ns = 1};
	uint64_t purged, freed;

	sim_host_enter(s->host);
	policy.now_ns = clock_wall_ns() + later_ns;
	if (checked(s, "purge_run", purge_run(s->replica, &policy, &purged)))
		return;
	tell(s->engine, "  %c purges %" PRIu64 " tombstones", s->name, purged);
	if (!engine_one_in(s->engine, 3))
		return;
	s->engine->expiring = true;
	replica_lock(s->replica);
	(void)checked(s, "trash_expire", trash_expire(replica_store(s->replica), policy.now_ns, 0, 0, &freed));
	replica_unlock(s->replica);
	s->engine->expiring = false;
}

/* --- dying --- */

void site_revive(struct site *s)
{
	site_close(s);
	site_drop_held(s);
	if (s->power) {
		oracle_before(s);
		sim_disk_crash(s->disk, &s->engine->random);
		sim_disk_check(s->disk);
		oracle_after(s, ORACLE_CRASH);
	} else {
		sim_disk_revive(s->disk);
	}
	tell(s->engine, "  %c starts again%s", s->name, s->power ? ", after power was lost" : "");
	s->die_at = 0;
	site_arm(s);
	s->meddled = false;
	if (!site_open(s) || !s->power)
		return;
	if (!s->meddled)
		oracle_recorded(s);
	if (oracle_unrecorded(s))
		s->acted = true;
}
