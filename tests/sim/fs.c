/* tests/sim/fs.c — the world, hosts, disks, mounts, descriptors; see tests/sim/fs.h. */
#include "tests/sim/fs_internal.h"

#include <errno.h>
#include <malloc.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"

#define LARGE_BYTES (1 << 20)
#define SLOT_BITS 14
#define SLOTS_MAX (1U << SLOT_BITS)
#define BOOTED_NS (3600 * CLOCK_NS_PER_S)
#define CALL_NS 1000
#define EPOCH_NS (INT64_C(1577880000) * CLOCK_NS_PER_S) /* 2020 */

struct sim_world sim;

const struct sim_disk_options sim_disk_usual = {
	.abilities = {
		.exchange = true,
		.no_replace = true,
		.reflink = true,
		.lease = true,
		.symlink = true,
		.time_granularity_ns = 1,
	},
	.hard_links = true,
	.generations = true,
	.birth_times = true,
	.rename_ctime = true,
	.tick_ns = 1,
};

void sim_fatal(const char *fmt, ...)
{
	va_list args;

	fputs("simulation: ", stderr);
	va_start(args, fmt);
	vfprintf(stderr, fmt, args);
	va_end(args);
	fputc('\n', stderr);
	abort();
}

void *sim_alloc(size_t n)
{
	void *p = calloc(1, n);

	if (!p)
		sim_fatal("out of memory");
	return p;
}

void sim_grow(void *array_p, size_t *cap, size_t need, size_t element_bytes)
{
	if (array_reserve(array_p, cap, need, element_bytes) < 0)
		sim_fatal("out of memory");
}

/* --- the world --- */

void sim_begin(uint64_t seed)
{
	sim_end();
	/* LMDB asks for 2 MiB of zeros for each environment, and uses some bytes of them: let the kernel give them. By itself
	 * malloc learns from the first free to keep such pieces, and writes zeros over all of them each time. */
	mallopt(M_MMAP_THRESHOLD, LARGE_BYTES);
	sim.begun = true;
	sim.random = seed;
	sim.trace = seed;
	sim.now_ns = BOOTED_NS;
	sim.next_dev = 2049;
	sim_host_enter(sim_host_new());
	sim.top = sim_disk_new(sim.host, &sim_disk_usual);
	sim.host = NULL;
	sim.n_hosts = 0; /* the top's own, freed with it */
}

void sim_end(void)
{
	if (!sim.begun)
		return;
	for (size_t i = 0; i < sim.n_descriptors; i++)
		if (sim.descriptors[i].handle && --sim.descriptors[i].handle->refs == 0)
			free(sim.descriptors[i].handle);
	free(sim.top->host);
	while (sim.n_disks)
		sim_disk_free(sim.disks[sim.n_disks - 1]);
	for (size_t i = 0; i < sim.n_hosts; i++)
		free(sim.hosts[i]);
	free(sim.hosts);
	free(sim.disks);
	free(sim.mounts);
	free(sim.descriptors);
	sim = (struct sim_world){0};
}

uint64_t sim_trace(void)
{
	return sim.trace;
}

void sim_trace_add(uint64_t what)
{
	sim.trace ^= what;
	sim.trace = (sim.trace ^ sim.trace >> 29) * UINT64_C(0xbf58476d1ce4e5b9);
}

/* --- hosts --- */

struct sim_host *sim_host_new(void)
{
	struct sim_host *h = sim_alloc(sizeof(*h));

	h->random = sim_random(&sim.random);
	h->wall_ns = EPOCH_NS + (int64_t)(sim_random(&sim.random) % CLOCK_NS_PER_S);
	h->umask = 022;
	h->number = sim.n_hosts;
	sim_grow(&sim.hosts, &sim.cap_hosts, sim.n_hosts + 1, sizeof(*sim.hosts));
	sim.hosts[sim.n_hosts++] = h;
	if (!sim.host)
		sim.host = h;
	return h;
}

void sim_host_enter(struct sim_host *h)
{
	sim.host = h;
}

void sim_host_user(struct sim_host *h, uint32_t uid, uint32_t gid)
{
	h->uid = uid;
	h->gid = gid;
}

/* --- disks --- */

static struct sim_disk *disk_alloc(struct sim_host *h)
{
	struct sim_disk *d = sim_alloc(sizeof(*d));

	d->host = h;
	d->number = sim.next_disk++;
	d->dev = sim.next_dev++;
	d->mount = sim.next_mount++;
	d->random = sim_random(&sim.random);
	sim_grow(&sim.disks, &sim.cap_disks, sim.n_disks + 1, sizeof(*sim.disks));
	sim.disks[sim.n_disks++] = d;
	return d;
}

struct sim_disk *sim_disk_new(struct sim_host *h, const struct sim_disk_options *options)
{
	struct sim_disk *d = disk_alloc(h);

	d->options = options ? *options : sim_disk_usual;
	if (d->options.tick_ns < d->options.abilities.time_granularity_ns)
		d->options.tick_ns = d->options.abilities.time_granularity_ns;
	d->id = sim_random(&d->random) | 1;
	d->hash_seed = sim_random(&d->random);
	d->next_ino = ROOT_INO;
	d->root = node_new(d, FILE_KIND_DIRECTORY, 0755);
	d->root->links = 1;
	return d;
}

static void disk_empty(struct sim_disk *d)
{
	sim_handles_lost(d);
	crash_log_free(d);
	while (d->n_nodes)
		node_free(d, d->nodes[d->n_nodes - 1]);
	d->root = NULL;
	d->n_dirty = 0;
}

void sim_disk_free(struct sim_disk *d)
{
	size_t kept = 0;

	disk_empty(d);
	for (size_t i = 0; i < sim.n_disks; i++)
		if (sim.disks[i] != d)
			sim.disks[kept++] = sim.disks[i];
	sim.n_disks = kept;
	kept = 0;
	for (size_t i = 0; i < sim.n_mounts; i++)
		if (sim.mounts[i].disk != d)
			sim.mounts[kept++] = sim.mounts[i];
	sim.n_mounts = kept;
	free(d->nodes);
	free(d->inos);
	free(d->log);
	free(d->dirty);
	free(d->faults);
	free(d);
}

static struct node *same_node(const struct sim_disk *to, const struct node *n)
{
	return n ? to->nodes[n->at] : NULL;
}

static void copy_node(struct sim_disk *to, struct node *m, const struct node *n)
{
	size_t at = m->at;

	*m = *n;
	m->at = at;
	m->handles = m->writers = 0;
	m->locker = NULL;
	m->parent = same_node(to, n->parent);
	m->target = n->target ? strdup(n->target) : NULL;
	m->extents = NULL;
	m->cap_extents = 0;
	if (n->n_extents)
		sim_grow(&m->extents, &m->cap_extents, n->n_extents, sizeof(*m->extents));
	for (size_t i = 0; i < n->n_extents; i++) {
		m->extents[i] = n->extents[i];
		page_ref(m->extents[i].now);
		page_ref(m->extents[i].old);
	}
	if (n->region)
		content_copy_region(m, n);
	m->entries = NULL;
	m->cap_entries = 0;
	if (n->n_entries)
		sim_grow(&m->entries, &m->cap_entries, n->n_entries, sizeof(*m->entries));
	for (size_t i = 0; i < n->n_entries; i++) {
		m->entries[i] = n->entries[i];
		m->entries[i].name = strdup(n->entries[i].name);
		m->entries[i].node = same_node(to, n->entries[i].node);
	}
}

static void copy_log(struct sim_disk *to, const struct sim_disk *from)
{
	sim_grow(&to->log, &to->cap_log, from->n_log + 1, sizeof(*to->log));
	for (to->n_log = 0; to->n_log < from->n_log; to->n_log++) {
		struct operation *o = &to->log[to->n_log];

		*o = from->log[to->n_log];
		o->made = same_node(to, o->made);
		for (unsigned i = 0; i < o->n; i++) {
			o->side[i].dir = same_node(to, o->side[i].dir);
			o->side[i].before = same_node(to, o->side[i].before);
			o->side[i].after = same_node(to, o->side[i].after);
			o->side[i].name = strdup(o->side[i].name);
		}
	}
}

/* `to` is empty. */
static void copy_disk(struct sim_disk *to, const struct sim_disk *from)
{
	to->options = from->options;
	to->id = from->id;
	to->hash_seed = from->hash_seed;
	to->next_ino = from->next_ino;
	to->read_only = from->read_only;
	to->mount = sim.next_mount++;
	for (size_t i = 0; i < from->n_nodes; i++) {
		sim_grow(&to->nodes, &to->cap_nodes, i + 1, sizeof(*to->nodes));
		to->nodes[i] = sim_alloc(sizeof(**to->nodes));
		to->nodes[i]->at = i;
		to->n_nodes = i + 1;
	}
	for (size_t i = 0; i < from->n_nodes; i++)
		copy_node(to, to->nodes[i], from->nodes[i]);
	to->root = same_node(to, from->root);
	copy_log(to, from);
	for (size_t i = 0; i < from->n_dirty; i++) {
		sim_grow(&to->dirty, &to->cap_dirty, i + 1, sizeof(*to->dirty));
		to->dirty[to->n_dirty++] = same_node(to, from->dirty[i]);
	}
	to->used = from->used;
	inos_rebuild(to);
	/* what was only held open is gone */
	for (size_t i = to->n_nodes; i-- > 0;)
		node_let_go(to, to->nodes[i]);
}

struct sim_disk *sim_disk_clone(const struct sim_disk *d, struct sim_host *h)
{
	struct sim_disk *copy = disk_alloc(h);

	copy_disk(copy, d);
	return copy;
}

void sim_disk_restore(struct sim_disk *d, const struct sim_disk *from)
{
	disk_empty(d);
	copy_disk(d, from);
}

void sim_disk_read_only(struct sim_disk *d, bool read_only)
{
	d->read_only = read_only;
}

void sim_disk_capacity(struct sim_disk *d, uint64_t bytes)
{
	d->options.capacity = bytes;
}

uint64_t sim_disk_used(const struct sim_disk *d)
{
	return d->used;
}

bool sim_disk_leases(const struct sim_disk *d)
{
	return d->options.abilities.lease;
}

/* --- mounts --- */

struct sim_disk *sim_mounted(const char *name, size_t n)
{
	for (size_t i = sim.n_mounts; i-- > 0;)
		if (strlen(sim.mounts[i].name) == n && memcmp(sim.mounts[i].name, name, n) == 0)
			return sim.mounts[i].disk;
	return NULL;
}

void sim_mount(struct sim_disk *d, const char *path)
{
	struct mount *m;

	if (path[0] != '/' || !path[1] || strchr(path + 1, '/') || strlen(path) >= sizeof(m->name))
		sim_fatal("%s can't be a mount point", path);
	if (!d->handles)
		d->dev = sim.next_dev++;
	d->mount = sim.next_mount++;
	sim_grow(&sim.mounts, &sim.cap_mounts, sim.n_mounts + 1, sizeof(*sim.mounts));
	m = &sim.mounts[sim.n_mounts++];
	m->disk = d;
	strcpy(m->name, path + 1);
}

void sim_unmount(const char *path)
{
	for (size_t i = sim.n_mounts; i-- > 0;) {
		if (strcmp(sim.mounts[i].name, path + 1))
			continue;
		memmove(&sim.mounts[i], &sim.mounts[i + 1], (sim.n_mounts - i - 1) * sizeof(*sim.mounts));
		sim.n_mounts--;
		return;
	}
}

/* --- calls --- */

const char *sim_call_name(enum sim_call call)
{
	static const char *const names[] = {
#define X(name) #name,
		SIM_CALLS(X)
#undef X
	};

	return names[call];
}

void sim_disk_fault(struct sim_disk *d, const struct sim_fault *f)
{
	sim_grow(&d->faults, &d->cap_faults, d->n_faults + 1, sizeof(*d->faults));
	d->faults[d->n_faults++] = *f;
}

void sim_disk_heal(struct sim_disk *d)
{
	d->n_faults = 0;
}

void sim_disk_hook(struct sim_disk *d, sim_hook *hook, void *data)
{
	d->hook = hook;
	d->hook_data = data;
}

uint64_t sim_disk_calls(const struct sim_disk *d)
{
	return d->calls;
}

void sim_disk_kill(struct sim_disk *d)
{
	d->killed = true;
}

bool sim_disk_killed(const struct sim_disk *d)
{
	return d->killed;
}

void sim_disk_revive(struct sim_disk *d)
{
	sim_handles_lost(d);
	d->killed = false;
}

static int fault_now(struct sim_disk *d, enum sim_call call)
{
	for (size_t i = 0; i < d->n_faults; i++) {
		struct sim_fault *f = &d->faults[i];

		if (!(f->calls >> call & 1))
			continue;
		if (f->after) {
			f->after--;
			continue;
		}
		if (f->one_in && !sim_one_in(&d->random, f->one_in))
			continue;
		if (f->times && --f->times == 0)
			f->calls = 0;
		return f->error;
	}
	return 0;
}

int sim_enter(struct sim_disk *d, enum sim_call call)
{
	sim.now_ns += CALL_NS;
	d->calls++;
	if (d->hook && !d->killed)
		d->hook(d, call, d->calls, d->hook_data);
	if (d->killed)
		return EIO;
	return d->n_faults ? fault_now(d, call) : 0;
}

int sim_leave(struct sim_disk *d, enum sim_call call, int r)
{
	sim_trace_add(d->number << 48 ^ (uint64_t)call << 32 ^ (uint32_t)r);
	return r;
}

/* --- descriptors --- */

bool sim_is_fd(int fd)
{
	return fd >= SIM_FD;
}

static struct descriptor *descriptor_of(int fd)
{
	uint32_t slot = (uint32_t)fd & (SLOTS_MAX - 1), generation = ((uint32_t)fd & ~(uint32_t)SIM_FD) >> SLOT_BITS;
	struct descriptor *x = &sim.descriptors[slot];

	if (!sim_is_fd(fd) || slot >= sim.n_descriptors || x->generation != generation || !x->handle)
		sim_fatal("descriptor %d is not open", fd);
	return x;
}

struct handle *sim_handle(int fd)
{
	struct handle *h = descriptor_of(fd)->handle;

	if (!h->node)
		sim_fatal("descriptor %d is of a machine that crashed", fd);
	return h;
}

static int descriptor_new(struct handle *h)
{
	const uint32_t generations = (uint32_t)SIM_FD >> SLOT_BITS;
	size_t slot = sim.low_descriptor;

	while (slot < sim.n_descriptors && sim.descriptors[slot].handle)
		slot++;
	if (slot == SLOTS_MAX)
		return -EMFILE;
	if (slot == sim.n_descriptors) {
		sim_grow(&sim.descriptors, &sim.cap_descriptors, slot + 1, sizeof(*sim.descriptors));
		sim.descriptors[slot] = (struct descriptor){0};
		sim.n_descriptors++;
	}
	sim.low_descriptor = slot + 1;
	sim.descriptors[slot].handle = h;
	sim.descriptors[slot].generation = (sim.descriptors[slot].generation + 1) % generations;
	sim.open++;
	h->refs++;
	return SIM_FD | (int)(sim.descriptors[slot].generation << SLOT_BITS) | (int)slot;
}

int sim_open(struct sim_disk *d, struct node *n, bool write)
{
	struct handle *h = sim_alloc(sizeof(*h));
	int fd;

	*h = (struct handle){.disk = d, .node = n, .write = write};
	fd = descriptor_new(h);
	if (fd < 0) {
		free(h);
		return fd;
	}
	d->handles++;
	n->handles++;
	n->writers += write;
	n->looked_into = n->looked_into || !sim.user;
	return fd;
}

int sim_dup(int fd)
{
	return descriptor_new(sim_handle(fd));
}

static void handle_let_go(struct handle *h)
{
	struct node *n = h->node;

	if (--h->refs)
		return;
	if (n) {
		h->disk->handles--;
		n->handles--;
		n->writers -= h->write;
		if (n->locker == h)
			n->locker = NULL;
		node_let_go(h->disk, n);
	}
	free(h);
}

void sim_close(int fd)
{
	struct descriptor *x = descriptor_of(fd);
	struct handle *h = x->handle;

	x->handle = NULL;
	if (sim.low_descriptor > (size_t)(x - sim.descriptors))
		sim.low_descriptor = (size_t)(x - sim.descriptors);
	sim.open--;
	handle_let_go(h);
}

void sim_dup_over(int fd, int onto)
{
	struct descriptor *x = descriptor_of(onto);
	struct handle *h = sim_handle(fd), *old = x->handle;

	h->refs++;
	x->handle = h;
	handle_let_go(old);
}

void sim_handles_lost(struct sim_disk *d)
{
	for (size_t i = 0; i < sim.n_descriptors && d->handles; i++) {
		struct handle *h = sim.descriptors[i].handle;
		struct node *n = h && h->disk == d ? h->node : NULL;

		if (!n)
			continue;
		h->node = NULL;
		d->handles--;
		n->handles--;
		n->writers -= h->write;
		n->locker = NULL;
		node_let_go(d, n);
	}
}

size_t sim_open_descriptors(void)
{
	return sim.open;
}

/* --- for tests --- */

static void expect(bool what, const char *text, const struct node *n)
{
	if (!what)
		sim_fatal("inode %llu: not so: %s", (unsigned long long)n->ino, text);
}

#define EXPECT(what, n) expect(what, #what, n)

static void check_directory(const struct sim_disk *d, const struct node *dir)
{
	uint32_t subdirectories = 0;

	for (size_t i = 0; i < dir->n_entries; i++) {
		const struct entry *e = &dir->entries[i];

		EXPECT(i == 0 || dir->entries[i - 1].hash <= e->hash, dir);
		EXPECT(tree_find(d, dir, e->name) == e, dir);
		EXPECT(!e->node->released && d->nodes[e->node->at] == e->node, e->node);
		if (e->node->kind != FILE_KIND_DIRECTORY)
			continue;
		EXPECT(e->node->parent == dir && e->node->links == 1, e->node);
		subdirectories++;
	}
	EXPECT(subdirectories == dir->subdirectories, dir);
}

void sim_disk_check(const struct sim_disk *d)
{
	uint32_t *links = sim_alloc(d->n_nodes * sizeof(*links));
	uint64_t used = 0;
	size_t handles = 0;

	for (size_t i = 0; i < d->n_nodes; i++) {
		check_directory(d, d->nodes[i]);
		for (size_t k = 0; k < d->nodes[i]->n_entries; k++)
			links[d->nodes[i]->entries[k].node->at]++;
	}
	links[d->root->at]++;
	for (size_t i = 0; i < d->n_nodes; i++) {
		const struct node *n = d->nodes[i];

		EXPECT(n->at == i && n->links == links[i], n);
		EXPECT(n->released == (!n->links && !n->handles), n);
		EXPECT(!n->released || n->pending, n);
		EXPECT(n->writers <= n->handles, n);
		if (!n->released)
			used += n->allocated;
		handles += n->handles;
	}
	EXPECT(used == d->used, d->root);
	EXPECT(handles == d->handles, d->root);
	free(links);
}
