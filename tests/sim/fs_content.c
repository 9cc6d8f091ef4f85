/*
 * tests/sim/fs_content.c — bytes of files. Pages are shared by reflinks, clones of disks, and what was last synced; each is
 * only as long as what was written into it. A file that LMDB maps stands in one piece of memory, its region, instead, of which what
 * lies behind the end may be anything; its extents then only say what was there when it was last synced.
 */
#include "tests/sim/fs_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#define REGIONS_MAX 512
#define REGION_KEPT_BYTES (UINT64_C(1) << 20) /* of a region that nobody uses; the rest goes back to the kernel */

/* Kept for the next world: to make them anew costs more than anything else in a short one. */
static struct {
	uint8_t *at[REGIONS_MAX];
	bool used[REGIONS_MAX];
	uint64_t touched[REGIONS_MAX]; /* bytes that were written */
	size_t n;
} regions;

static uint64_t min_u64(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

static uint64_t max_u64(uint64_t a, uint64_t b)
{
	return a > b ? a : b;
}

/* --- pages --- */

struct page *page_ref(struct page *p)
{
	if (p)
		p->refs++;
	return p;
}

void page_unref(struct page *p)
{
	if (p && --p->refs == 0)
		free(p);
}

/* A page of its own with room for `need` bytes, and what p (may be NULL) has of them up to `kept`. */
static struct page *page_copy(const struct page *p, size_t need, size_t kept)
{
	size_t cap = 48;
	struct page *copy;

	if (p && kept > p->n)
		kept = p->n;
	if (!p)
		kept = 0;
	if (need < kept)
		need = kept;
	while (cap < need)
		cap *= 2;
	if (cap > PAGE_BYTES)
		cap = PAGE_BYTES;
	copy = malloc(sizeof(*copy) + cap);
	if (!copy)
		sim_fatal("out of memory");
	copy->refs = 1;
	copy->cap = (uint16_t)cap;
	copy->n = (uint16_t)kept;
	if (kept)
		memcpy(copy->bytes, p->bytes, kept);
	return copy;
}

struct page *page_cut(const struct page *p, size_t n)
{
	return page_copy(p, n, n);
}

static void page_put(struct page *p, size_t at, const void *bytes, size_t n)
{
	if (at > p->n)
		memset(p->bytes + p->n, 0, at - p->n);
	memcpy(p->bytes + at, bytes, n);
	if (at + n > p->n)
		p->n = (uint16_t)(at + n);
}

/* --- regions --- */

static size_t region_number(const uint8_t *region)
{
	size_t i = 0;

	while (i < regions.n && regions.at[i] != region)
		i++;
	return i;
}

static uint8_t *region_new(void)
{
	size_t i = 0;

	while (i < regions.n && regions.used[i])
		i++;
	if (i == REGIONS_MAX)
		sim_fatal("too many indexes");
	if (i == regions.n) {
		const int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
		long at = syscall(SYS_mmap, NULL, REGION_BYTES, PROT_READ | PROT_WRITE, flags, -1, 0);

		if (at == -1)
			sim_fatal("no room for an index");
		regions.at[i] = (uint8_t *)at;
		regions.n++;
	}
	regions.used[i] = true;
	return regions.at[i];
}

static void region_free(uint8_t *region)
{
	size_t i = region_number(region);

	if (regions.touched[i] > REGION_KEPT_BYTES)
		madvise(region + REGION_KEPT_BYTES, REGION_BYTES - REGION_KEPT_BYTES, MADV_DONTNEED);
	regions.touched[i] = 0;
	regions.used[i] = false;
}

static void region_touch(const uint8_t *region, uint64_t end)
{
	size_t i = region_number(region);

	regions.touched[i] = max_u64(regions.touched[i], end);
}

bool content_is_region(const void *p)
{
	for (size_t i = 0; i < regions.n; i++)
		if ((const uint8_t *)p >= regions.at[i] && (const uint8_t *)p < regions.at[i] + REGION_BYTES)
			return true;
	return false;
}

void content_copy_region(struct node *to, const struct node *from)
{
	to->region = region_new();
	memcpy(to->region, from->region, from->now.size);
	region_touch(to->region, from->now.size);
}

/* --- extents --- */

static size_t extent_place(const struct node *n, uint64_t page)
{
	size_t low = 0, high = n->n_extents;

	if (high && n->extents[high - 1].page < page)
		return high;
	while (low < high) {
		size_t middle = (low + high) / 2;

		if (n->extents[middle].page < page)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

static struct extent *extent_find(const struct node *n, uint64_t page)
{
	size_t at = extent_place(n, page);

	return at < n->n_extents && n->extents[at].page == page ? &n->extents[at] : NULL;
}

static struct extent *extent_get(struct node *n, uint64_t page)
{
	size_t at = extent_place(n, page);

	if (at < n->n_extents && n->extents[at].page == page)
		return &n->extents[at];
	sim_grow(&n->extents, &n->cap_extents, n->n_extents + 1, sizeof(*n->extents));
	memmove(&n->extents[at + 1], &n->extents[at], (n->n_extents - at) * sizeof(*n->extents));
	n->n_extents++;
	n->extents[at] = (struct extent){.page = page};
	return &n->extents[at];
}

/* Before a page changes: remember what is durable of it. */
static void extent_dirty(struct sim_disk *d, struct node *n, struct extent *e)
{
	e->lost = false;
	if (e->dirty || d->options.never_crashes)
		return;
	e->dirty = true;
	if (n->region && e->page * PAGE_BYTES < n->now.size) {
		e->old = page_copy(NULL, PAGE_BYTES, 0);
		page_put(e->old, 0, n->region + e->page * PAGE_BYTES, PAGE_BYTES);
	} else {
		e->old = page_ref(e->now);
	}
	crash_dirty(d, n);
}

static void changing(struct sim_disk *d, struct node *n)
{
	n->known = 0;
	n->user_wrote = n->user_wrote || sim.user;
	if (d->watcher)
		d->watcher->content(d, n, d->watcher->data);
}

static void take(struct sim_disk *d, struct node *n, uint64_t bytes)
{
	n->allocated += bytes;
	d->used += bytes;
}

static void give(struct sim_disk *d, struct node *n, uint64_t bytes)
{
	n->allocated -= bytes;
	d->used -= bytes;
}

static bool has_room(const struct sim_disk *d, uint64_t bytes)
{
	return !d->options.capacity || d->used + bytes <= d->options.capacity;
}

static void extent_clear(struct sim_disk *d, struct node *n, struct extent *e)
{
	if (!e->now)
		return;
	extent_dirty(d, n, e);
	page_unref(e->now);
	e->now = NULL;
	give(d, n, PAGE_BYTES);
}

/* Zeros from `at` on in this page. */
static void extent_cut(struct sim_disk *d, struct node *n, struct extent *e, size_t at)
{
	struct page *p;

	if (!e->now || e->now->n <= at)
		return;
	extent_dirty(d, n, e);
	p = page_cut(e->now, at);
	page_unref(e->now);
	e->now = p;
}

/* Those that say nothing. */
static void extents_tidy(struct node *n)
{
	size_t kept = 0;

	for (size_t i = 0; i < n->n_extents; i++)
		if (n->extents[i].now || n->extents[i].dirty)
			n->extents[kept++] = n->extents[i];
	n->n_extents = kept;
}

void content_free(struct sim_disk *d, struct node *n)
{
	(void)d;
	for (size_t i = 0; i < n->n_extents; i++) {
		page_unref(n->extents[i].now);
		page_unref(n->extents[i].old);
	}
	n->n_extents = 0;
	if (n->region)
		region_free(n->region);
	n->region = NULL;
}

void content_count(struct sim_disk *d, struct node *n)
{
	uint64_t bytes = NODE_BYTES;

	if (n->region)
		bytes += (n->now.size + PAGE_BYTES - 1) / PAGE_BYTES * PAGE_BYTES;
	for (size_t i = 0; i < n->n_extents; i++)
		if (n->extents[i].now)
			bytes += PAGE_BYTES;
	d->used += bytes;
	n->allocated = bytes;
}

/* --- mapping --- */

void content_map(struct sim_disk *d, struct node *n)
{
	uint8_t *region;

	if (n->region)
		return;
	if (n->now.size > REGION_BYTES)
		sim_fatal("an index is too large to be mapped");
	region = region_new();
	content_read(n, region, n->now.size, 0);
	region_touch(region, n->now.size);
	for (size_t i = 0; i < n->n_extents; i++) {
		page_unref(n->extents[i].now);
		n->extents[i].now = NULL;
	}
	extents_tidy(n);
	n->region = region;
	d->used -= n->allocated;
	content_count(d, n);
}

/* --- reading and writing --- */

size_t content_read(const struct node *n, void *ret, size_t len, uint64_t offset)
{
	uint8_t *to = ret;
	size_t done = 0;

	if (offset >= n->now.size)
		return 0;
	len = (size_t)min_u64(len, n->now.size - offset);
	if (n->region) {
		memcpy(to, n->region + offset, len);
		return len;
	}
	while (done < len) {
		uint64_t page = (offset + done) / PAGE_BYTES;
		size_t in = (offset + done) % PAGE_BYTES, now = min_u64(len - done, PAGE_BYTES - in), has = 0;
		const struct extent *e = extent_find(n, page);

		if (e && e->now && e->now->n > in) {
			has = min_u64(now, e->now->n - in);
			memcpy(to + done, e->now->bytes + in, has);
		}
		memset(to + done + has, 0, now - has);
		done += now;
	}
	return len;
}

static void resized(struct node *n, uint64_t size)
{
	n->now.size = size;
	if (size < n->size_min)
		n->size_min = size;
}

static int write_region(struct sim_disk *d, struct node *n, const void *p, size_t len, uint64_t offset)
{
	uint64_t end = offset + len, more = 0;

	if (end > REGION_BYTES)
		return -ENOSPC;
	if (end > n->now.size)
		more = (end + PAGE_BYTES - 1) / PAGE_BYTES * PAGE_BYTES + NODE_BYTES - n->allocated;
	if (!has_room(d, more))
		return -ENOSPC;
	for (uint64_t page = offset / PAGE_BYTES; page * PAGE_BYTES < end; page++)
		if (!d->options.never_crashes)
			extent_dirty(d, n, extent_get(n, page));
	if (offset > n->now.size)
		memset(n->region + n->now.size, 0, offset - n->now.size);
	memcpy(n->region + offset, p, len);
	region_touch(n->region, end);
	take(d, n, more);
	if (end > n->now.size)
		resized(n, end);
	return 0;
}

static int write_page(struct sim_disk *d, struct node *n, const uint8_t *p, size_t len, uint64_t offset)
{
	size_t in = offset % PAGE_BYTES;
	struct extent *e = extent_get(n, offset / PAGE_BYTES);

	if (!e->now && !has_room(d, PAGE_BYTES)) {
		extents_tidy(n);
		return -ENOSPC;
	}
	if (!e->now)
		take(d, n, PAGE_BYTES);
	extent_dirty(d, n, e);
	if (!e->now || e->now->refs > 1 || e->now->cap < in + len) {
		struct page *copy = page_copy(e->now, in + len, PAGE_BYTES);

		page_unref(e->now);
		e->now = copy;
	}
	page_put(e->now, in, p, len);
	if (offset + len > n->now.size)
		resized(n, offset + len);
	return 0;
}

int content_write(struct sim_disk *d, struct node *n, const void *p, size_t len, uint64_t offset)
{
	const uint8_t *from = p;
	int r = 0;

	changing(d, n);
	if (n->region)
		return write_region(d, n, p, len, offset);
	while (len && r == 0) {
		size_t now = min_u64(len, PAGE_BYTES - offset % PAGE_BYTES);

		r = write_page(d, n, from, now, offset);
		from += now;
		offset += now;
		len -= now;
	}
	return r;
}

static void resize_region(struct sim_disk *d, struct node *n, uint64_t size)
{
	for (uint64_t page = size / PAGE_BYTES; page * PAGE_BYTES < n->now.size; page++)
		if (!d->options.never_crashes)
			extent_dirty(d, n, extent_get(n, page));
	if (size > n->now.size)
		memset(n->region + n->now.size, 0, size - n->now.size);
	region_touch(n->region, size);
	resized(n, size);
	d->used -= n->allocated;
	content_count(d, n);
}

int content_resize(struct sim_disk *d, struct node *n, uint64_t size)
{
	struct extent *e;

	changing(d, n);
	if (n->region && size > REGION_BYTES)
		return -ENOSPC;
	if (n->region) {
		resize_region(d, n, size);
	} else {
		for (size_t i = extent_place(n, (size + PAGE_BYTES - 1) / PAGE_BYTES); i < n->n_extents; i++)
			extent_clear(d, n, &n->extents[i]);
		e = size % PAGE_BYTES ? extent_find(n, size / PAGE_BYTES) : NULL;
		if (e)
			extent_cut(d, n, e, size % PAGE_BYTES);
		extents_tidy(n);
		resized(n, size);
	}
	crash_dirty(d, n);
	return 0;
}

int content_clear(struct sim_disk *d, struct node *n, uint64_t offset, uint64_t end)
{
	static const uint8_t zeros[PAGE_BYTES];
	size_t i = extent_place(n, offset / PAGE_BYTES);
	int r = 0;

	changing(d, n);
	end = min_u64(end, n->now.size);
	if (n->region)
		sim_fatal("nobody makes holes in an index");
	for (; offset < end && i < n->n_extents && n->extents[i].page * PAGE_BYTES < end && r == 0; i++) {
		struct extent *e = &n->extents[i];
		uint64_t from = max_u64(offset, e->page * PAGE_BYTES), to = min_u64(end, (e->page + 1) * PAGE_BYTES);

		if (to - from == PAGE_BYTES)
			extent_clear(d, n, e);
		else if (e->now)
			r = write_page(d, n, zeros, to - from, from);
	}
	extents_tidy(n);
	return r;
}

bool content_data(const struct node *n, uint64_t offset, uint64_t *ret_from, uint64_t *ret_to)
{
	size_t i = extent_place(n, offset / PAGE_BYTES);
	uint64_t end;

	if (offset >= n->now.size)
		return false;
	if (n->region) {
		*ret_from = offset;
		*ret_to = n->now.size;
		return true;
	}
	while (i < n->n_extents && !n->extents[i].now)
		i++;
	if (i == n->n_extents)
		return false;
	*ret_from = max_u64(offset, n->extents[i].page * PAGE_BYTES);
	end = n->extents[i].page;
	while (i < n->n_extents && n->extents[i].now && n->extents[i].page == end) {
		i++;
		end++;
	}
	*ret_to = min_u64(end * PAGE_BYTES, n->now.size);
	return *ret_from < *ret_to;
}

void content_share(struct sim_disk *d, struct node *to, const struct node *from)
{
	uint64_t pages = (from->now.size + PAGE_BYTES - 1) / PAGE_BYTES;

	changing(d, to);
	for (size_t i = 0; i < to->n_extents && to->extents[i].page < pages; i++)
		extent_clear(d, to, &to->extents[i]);
	for (size_t i = 0; i < from->n_extents; i++) {
		struct extent *e;

		if (!from->extents[i].now)
			continue;
		e = extent_get(to, from->extents[i].page);
		extent_dirty(d, to, e);
		e->now = page_ref(from->extents[i].now);
		take(d, to, PAGE_BYTES);
	}
	extents_tidy(to);
	if (to->now.size < from->now.size)
		resized(to, from->now.size);
	crash_dirty(d, to);
}

/* --- what a crash leaves --- */

void content_set_page(struct node *n, struct extent *e, struct page *p)
{
	n->known = 0;
	if (n->region) {
		uint8_t *at = n->region + e->page * PAGE_BYTES;

		memset(at, 0, PAGE_BYTES);
		if (p)
			memcpy(at, p->bytes, p->n);
		return;
	}
	page_ref(p);
	page_unref(e->now);
	e->now = p;
}

void content_trim(struct node *n, uint64_t size)
{
	size_t kept = 0;

	n->known = 0;
	for (size_t i = 0; i < n->n_extents; i++) {
		struct extent *e = &n->extents[i];
		uint64_t from = e->page * PAGE_BYTES;

		page_unref(e->old);
		e->old = NULL;
		e->dirty = e->lost = false;
		if (e->now && from + e->now->n > size) {
			struct page *cut = from < size ? page_cut(e->now, size - from) : NULL;

			page_unref(e->now);
			e->now = cut;
		}
		if (e->now)
			n->extents[kept++] = *e;
	}
	n->n_extents = kept;
	n->now.size = size;
}
