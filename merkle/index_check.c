/*
 * merkle/index_check.c — see merkle/index_check.h.
 *
 * The file as LMDB 0.9 writes it on a 64-bit, little- or big-endian machine (native order): pages 0 and 1 are meta pages, the
 * one with the higher transaction counts. It names two B+trees: the free pages, and the tables by name.
 *
 *   page       number u64, pad u16, flags u16, lower u16, upper u16 (or u32: pages of an overflow run), offsets u16 …
 *   node       lo u16, hi u16, flags u16, key bytes u16, key, value (leaf; lo and hi are its length) — a branch's lo, hi and
 *              flags are the child's page number, and its first key means nothing
 *   tree       pad u32 (the page size, in the first), flags u16, depth u16, 3 counts of pages, entries, root: u64 each
 *
 * Strict where LMDB relies on it, and nowhere else: what is refused here is rebuilt, at the price of its history.
 */
#include "merkle/index_check.h"

#include <endian.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/file.h"
#include "merkle/index_internal.h"

#define META_PAGES 2
#define META_MAGIC 0xBEEFC0DE
#define META_VERSION 1
#define META_BYTES 152 /* with the page's header */
#define PAGE_MIN 512
#define PAGE_MAX 65536
#define PAGE_HEADER 16
#define PAGE_BRANCH 0x01
#define PAGE_LEAF 0x02
#define PAGE_OVERFLOW 0x04
#define PAGE_META 0x08
#define NODE_HEADER 8
#define NODE_BIG 0x01	/* the value is the number of an overflow run */
#define NODE_TABLE 0x02 /* the value is a tree */
#define TREE_BYTES 48
#define TREE_INTEGER_KEYS 0x08
#define DEPTH_MAX 32
#define KEY_BYTES_MAX 511
#define PAGES_MAX (UINT64_C(1) << 32)
#define NO_PAGE UINT64_MAX

struct table {
	uint16_t flags, depth;
	uint64_t entries, root;
};

struct check {
	int fd;
	char *what; /* may be NULL */
	size_t page_bytes;
	uint64_t pages;	    /* that are in use or free; the last ones may never have been written */
	uint64_t in_file;   /* that are there */
	uint8_t *seen;	    /* a bit for each that is there */
	struct buf value;   /* of an overflow run */
	struct table table[INDEX_TABLES];
	bool found[INDEX_TABLES], unknown;
	uint32_t format;

	/* of the tree that is walked */
	const char *name;
	int (*leaf)(struct check *c, const MDB_val *key, const MDB_val *value, uint16_t flags);
	bool integer_keys;
	uint64_t entries;
	uint8_t last[KEY_BYTES_MAX], floor[KEY_BYTES_MAX]; /* the next key is above the one, and not below the other */
	size_t last_n, floor_n;
	bool any;
};

__attribute__((format(printf, 2, 3))) static int damaged(struct check *c, const char *format, ...)
{
	va_list args;
	int n;

	if (!c->what)
		return -EBADMSG;
	n = c->name ? snprintf(c->what, INDEX_CHECK_TEXT_BYTES, "table %s: ", c->name) : 0;
	va_start(args, format);
	vsnprintf(c->what + n, INDEX_CHECK_TEXT_BYTES - (size_t)n, format, args);
	va_end(args);
	return -EBADMSG;
}

static uint16_t u16_at(const uint8_t *p)
{
	uint16_t v;

	memcpy(&v, p, sizeof(v));
	return v;
}

static uint32_t u32_at(const uint8_t *p)
{
	uint32_t v;

	memcpy(&v, p, sizeof(v));
	return v;
}

static uint64_t u64_at(const uint8_t *p)
{
	uint64_t v;

	memcpy(&v, p, sizeof(v));
	return v;
}

/* Node headers have their halves in the machine's order. */
static uint32_t node_low(const uint8_t *node)
{
	uint16_t first = u16_at(node), second = u16_at(node + 2);

	return BYTE_ORDER == LITTLE_ENDIAN ? first | (uint32_t)second << 16 : second | (uint32_t)first << 16;
}

static int take_pages(struct check *c, uint64_t page, uint64_t n, const char *as)
{
	if (page < META_PAGES || page >= c->pages || n > c->pages - page)
		return damaged(c, "page %" PRIu64 " (%s) is beyond the end", page, as);
	if (page >= c->in_file || n > c->in_file - page)
		return damaged(c, "the file is cut short: page %" PRIu64 " (%s) is missing", page, as);
	for (uint64_t k = page; k < page + n; k++) {
		if (c->seen[k / 8] & (1 << k % 8))
			return damaged(c, "page %" PRIu64 " (%s) is used twice", k, as);
		c->seen[k / 8] |= (uint8_t)(1 << k % 8);
	}
	return 0;
}

static int read_page(struct check *c, uint64_t page, uint8_t *ret)
{
	size_t n;
	int r = file_read(c->fd, ret, c->page_bytes, page * c->page_bytes, &n);

	if (r < 0)
		return r;
	return n == c->page_bytes && u64_at(ret) == page ? 0 : damaged(c, "page %" PRIu64 " is none", page);
}

/* --- nodes --- */

/* The node's bytes, all within the page; its key. */
static int node_at(struct check *c, const uint8_t *page, unsigned i, const uint8_t **ret, MDB_val *ret_key)
{
	size_t at = u16_at(page + PAGE_HEADER + 2 * i), key_n;

	if (at % 2 || at < u16_at(page + 14) || at + NODE_HEADER > c->page_bytes)
		return damaged(c, "page %" PRIu64 " has a node outside of it", u64_at(page));
	key_n = u16_at(page + at + 6);
	if (key_n > KEY_BYTES_MAX || at + NODE_HEADER + key_n > c->page_bytes)
		return damaged(c, "page %" PRIu64 " has a key outside of it", u64_at(page));
	*ret = page + at;
	*ret_key = (MDB_val){key_n, (void *)(page + at + NODE_HEADER)};
	return 0;
}

static int compare(const struct check *c, const MDB_val *key, const uint8_t *other, size_t n)
{
	if (c->integer_keys) {
		uint64_t a = u64_at(key->mv_data), b = u64_at(other);

		return (a > b) - (a < b);
	}
	return index_key_compare(key->mv_data, key->mv_size, other, n);
}

static int take_key(struct check *c, const uint8_t *page, const MDB_val *key)
{
	if (!key->mv_size || (c->integer_keys && key->mv_size != sizeof(uint64_t)))
		return damaged(c, "page %" PRIu64 " has a key of %zu bytes", u64_at(page), key->mv_size);
	if ((c->any && compare(c, key, c->last, c->last_n) <= 0) || (c->floor_n && compare(c, key, c->floor, c->floor_n) < 0))
		return damaged(c, "page %" PRIu64 " is not in order", u64_at(page));
	memcpy(c->last, key->mv_data, key->mv_size);
	c->last_n = key->mv_size;
	c->any = true;
	c->floor_n = 0;
	return 0;
}

/* Between two children: above all keys of the first, and not above any of the second. */
static int take_separator(struct check *c, const uint8_t *page, const MDB_val *key)
{
	if (!key->mv_size || (c->integer_keys && key->mv_size != sizeof(uint64_t)) || !c->any ||
		compare(c, key, c->last, c->last_n) <= 0)
		return damaged(c, "page %" PRIu64 " (branch) is not in order", u64_at(page));
	memcpy(c->floor, key->mv_data, key->mv_size);
	c->floor_n = key->mv_size;
	return 0;
}

static int read_overflow(struct check *c, uint64_t page, size_t value_n, MDB_val *ret)
{
	uint8_t header[PAGE_HEADER];
	uint64_t n;
	uint8_t *to;
	size_t got;
	int r = take_pages(c, page, 1, "overflow");

	if (r == 0)
		r = file_read(c->fd, header, sizeof(header), page * c->page_bytes, &got);
	if (r < 0)
		return r;
	n = u32_at(header + 12);
	if (got < sizeof(header) || u64_at(header) != page || u16_at(header + 10) != PAGE_OVERFLOW || !n ||
		n * c->page_bytes < PAGE_HEADER + value_n)
		return damaged(c, "page %" PRIu64 " (overflow) is none", page);
	if (n > 1)
		r = take_pages(c, page + 1, n - 1, "overflow");
	if (r < 0)
		return r;
	buf_clear(&c->value);
	to = buf_reserve(&c->value, value_n);
	if (!to)
		return -ENOMEM;
	r = file_read(c->fd, to, value_n, page * c->page_bytes + PAGE_HEADER, &got);
	*ret = (MDB_val){value_n, to};
	return r < 0 ? r : got == value_n ? 0 : damaged(c, "page %" PRIu64 " (overflow) is none", page);
}

static int check_leaf_node(struct check *c, const uint8_t *page, unsigned i)
{
	const uint8_t *node;
	MDB_val key, value;
	uint16_t flags;
	size_t room, n;
	int r = node_at(c, page, i, &node, &key);

	if (r == 0)
		r = take_key(c, page, &key);
	if (r < 0)
		return r;
	n = node_low(node);
	flags = u16_at(node + 4);
	value = (MDB_val){n, (uint8_t *)key.mv_data + key.mv_size};
	room = c->page_bytes - (size_t)((uint8_t *)value.mv_data - page);
	if (flags & ~(NODE_BIG | NODE_TABLE) || (flags & NODE_BIG ? sizeof(uint64_t) : n) > room)
		return damaged(c, "page %" PRIu64 " has a value outside of it", u64_at(page));
	if (flags & NODE_BIG)
		r = read_overflow(c, u64_at(value.mv_data), n, &value);
	c->entries++;
	return r == 0 ? c->leaf(c, &key, &value, flags) : r;
}

/* --- trees --- */

static int check_page(struct check *c, uint64_t number, unsigned depth);

static int check_branch_node(struct check *c, const uint8_t *page, unsigned i, unsigned depth)
{
	const uint8_t *node;
	MDB_val key;
	int r = node_at(c, page, i, &node, &key);

	if (r == 0 && i > 0)
		r = take_separator(c, page, &key);
	return r == 0 ? check_page(c, node_low(node) | (uint64_t)u16_at(node + 4) << 32, depth - 1) : r;
}

/* depth: levels that are left, with this one. */
static int check_page(struct check *c, uint64_t number, unsigned depth)
{
	cleanup_free uint8_t *page = malloc(c->page_bytes);
	unsigned lower, upper;
	int r;

	if (!page)
		return -ENOMEM;
	r = take_pages(c, number, 1, "tree");
	if (r == 0)
		r = read_page(c, number, page);
	if (r < 0)
		return r;
	lower = u16_at(page + 12);
	upper = u16_at(page + 14);
	if (u16_at(page + 10) != (depth > 1 ? PAGE_BRANCH : PAGE_LEAF))
		return damaged(c, "page %" PRIu64 " is no %s", number, depth > 1 ? "branch" : "leaf");
	if (lower <= PAGE_HEADER || lower % 2 || lower > upper || upper > c->page_bytes)
		return damaged(c, "page %" PRIu64 " has bad bounds", number);
	for (unsigned i = 0; r == 0 && i < (lower - PAGE_HEADER) / 2; i++)
		r = depth > 1 ? check_branch_node(c, page, i, depth) : check_leaf_node(c, page, i);
	return r;
}

static struct table table_at(const uint8_t *p)
{
	return (struct table){
		.flags = u16_at(p + 4), .depth = u16_at(p + 6), .entries = u64_at(p + 32), .root = u64_at(p + 40)};
}

static int check_tree(struct check *c, const struct table *t, const char *name,
	int (*leaf)(struct check *, const MDB_val *, const MDB_val *, uint16_t))
{
	int r;

	c->name = name;
	c->leaf = leaf;
	c->integer_keys = t->flags & TREE_INTEGER_KEYS;
	c->entries = 0;
	c->any = false;
	c->floor_n = 0;
	if (t->root == NO_PAGE)
		return t->entries ? damaged(c, "has no pages") : 0;
	if (!t->depth || t->depth > DEPTH_MAX)
		return damaged(c, "is %u levels deep", t->depth);
	r = check_page(c, t->root, t->depth);
	if (r == 0 && c->entries != t->entries)
		r = damaged(c, "%" PRIu64 " entries instead of %" PRIu64, c->entries, t->entries);
	return r;
}

/* --- what the leaves hold --- */

static int free_leaf(struct check *c, const MDB_val *key, const MDB_val *value, uint16_t flags)
{
	const uint8_t *p = value->mv_data;
	uint64_t n = value->mv_size < 8 ? 0 : u64_at(p);
	int r = 0;

	(void)key;
	if (value->mv_size < 8 || flags & NODE_TABLE || n > value->mv_size / 8 - 1)
		return damaged(c, "a list is too long");
	for (uint64_t k = 1; r == 0 && k <= n; k++) {
		uint64_t page = u64_at(p + 8 * k);

		if (page < c->in_file || page >= c->pages)
			r = take_pages(c, page, 1, "free");
	}
	return r;
}

static int main_leaf(struct check *c, const MDB_val *key, const MDB_val *value, uint16_t flags)
{
	int i = index_table_find(key->mv_data, key->mv_size);

	if (flags != NODE_TABLE || value->mv_size != TREE_BYTES)
		return damaged(c, "an entry is no table");
	if (i < 0) {
		c->unknown = true;
		return 0;
	}
	c->table[i] = table_at(value->mv_data);
	c->found[i] = true;
	return c->table[i].flags ? damaged(c, "a table has flags %x", c->table[i].flags) : 0;
}

static int key_leaf(struct check *c, const MDB_val *key, const MDB_val *value, uint16_t flags)
{
	(void)key;
	return flags || value->mv_size ? damaged(c, "a value where none is") : 0;
}

static int value_leaf(struct check *c, const MDB_val *key, const MDB_val *value, uint16_t flags)
{
	struct cursor v;

	if (flags & NODE_TABLE || index_value_open(key, value, &v) < 0)
		return damaged(c, "a wrong checksum");
	return 0;
}

static int meta_leaf(struct check *c, const MDB_val *key, const MDB_val *value, uint16_t flags)
{
	struct cursor v;
	int r = value_leaf(c, key, value, flags);

	if (r < 0 || key->mv_size != 1 || *(uint8_t *)key->mv_data != INDEX_META_FORMAT)
		return r;
	index_value_open(key, value, &v);
	c->format = get_u32(&v);
	return 0;
}

/* The format comes first: what another one means is not known here. */
static int check_tables(struct check *c)
{
	int r;

	if (!c->found[INDEX_TABLE_META])
		return damaged(c, "has no table of that name");
	r = check_tree(c, &c->table[INDEX_TABLE_META], index_table_name(INDEX_TABLE_META), meta_leaf);
	if (r < 0)
		return r;
	if (c->format < 1 || c->format > INDEX_FORMAT)
		return c->format ? -EPROTONOSUPPORT : damaged(c, "has no format");
	if (c->unknown)
		return damaged(c, "beside it stands a table that is not ours");
	for (int i = INDEX_TABLE_META + 1; r == 0 && i < INDEX_TABLES; i++) {
		bool keys = i == INDEX_TABLE_CONTENTS || i == INDEX_TABLE_INODES;

		c->name = index_table_name(i);
		r = c->found[i] ? check_tree(c, &c->table[i], c->name, keys ? key_leaf : value_leaf) : damaged(c, "is missing");
	}
	return r;
}

/* --- the meta pages --- */

static int check_meta(struct check *c, const uint8_t *meta, unsigned i)
{
	if (u16_at(meta + 10) != PAGE_META || u32_at(meta + PAGE_HEADER) != META_MAGIC)
		return damaged(c, "not LMDB's, or its page %u is damaged", i);
	return u32_at(meta + PAGE_HEADER + 4) == META_VERSION ? 0 : -EPROTONOSUPPORT;
}

/* The newer of the two. INDEX_MISSING: an empty file. */
static int read_meta(struct check *c, uint8_t ret[META_BYTES])
{
	uint8_t meta[META_PAGES][META_BYTES];
	int first, second;
	size_t n;
	int r = file_read(c->fd, meta[0], META_BYTES, 0, &n);

	if (r < 0 || !n)
		return r < 0 ? r : INDEX_MISSING;
	if (n < META_BYTES)
		return damaged(c, "the file is cut short");
	first = check_meta(c, meta[0], 0);
	if (first)
		return first;
	c->page_bytes = u32_at(meta[0] + PAGE_HEADER + 24);
	if (c->page_bytes < PAGE_MIN || c->page_bytes > PAGE_MAX || c->page_bytes & (c->page_bytes - 1))
		return damaged(c, "page 0 is damaged");
	r = file_read(c->fd, meta[1], META_BYTES, c->page_bytes, &n);
	if (r < 0)
		return r;
	if (n < META_BYTES)
		return damaged(c, "the file is cut short");
	second = check_meta(c, meta[1], 1);
	if (second)
		return second == -EPROTONOSUPPORT ? damaged(c, "page 1 is damaged") : second;
	memcpy(ret, meta[u64_at(meta[0] + 144) < u64_at(meta[1] + 144)], META_BYTES);
	return u32_at(ret + PAGE_HEADER + 24) == c->page_bytes ? 0 : damaged(c, "the pages' size is damaged");
}

static int check_all(struct check *c)
{
	uint8_t meta[META_BYTES] = {0};
	struct table free_pages, tables;
	struct file_stat st;
	int r = file_stat_fd(c->fd, &st);

	if (r)
		return r < 0 ? r : -EIO;
	r = read_meta(c, meta);
	if (r)
		return r;
	free_pages = table_at(meta + PAGE_HEADER + 24);
	tables = table_at(meta + PAGE_HEADER + 24 + TREE_BYTES);
	c->pages = u64_at(meta + 136) + 1;
	if (free_pages.flags != TREE_INTEGER_KEYS || tables.flags || c->pages < META_PAGES || c->pages > PAGES_MAX)
		return damaged(c, "a meta page is damaged");
	if (tables.root == NO_PAGE)
		return tables.entries ? damaged(c, "a meta page is damaged") : INDEX_MISSING;
	c->in_file = st.size / c->page_bytes;
	c->seen = calloc(1, c->in_file / 8 + 1);
	if (!c->seen)
		return -ENOMEM;
	r = check_tree(c, &tables, "of tables", main_leaf);
	if (r == 0)
		r = check_tables(c);
	return r == 0 ? check_tree(c, &free_pages, "of free pages", free_leaf) : r;
}

int index_check(int dir, char *ret_what)
{
	cleanup_close int fd = -1;
	struct check c = {.what = ret_what, .value = BUF_INIT};
	int r = file_open_read(dir, "data.mdb", &fd);

	if (r)
		return r == FILE_VANISHED ? INDEX_MISSING : r == FILE_UNSUPPORTED ? -EPERM : r == FILE_DENIED ? -EACCES : r < 0 ? r : -EIO;
	c.fd = fd;
	r = check_all(&c);
	free(c.seen);
	buf_deinit(&c.value);
	return r;
}

/* --- seals --- */

#define SEAL_BYTES_MAX 256
#define BOOT_SLACK_S 5

struct seal {
	uint64_t ino, size;
	int64_t mtime_ns, ctime_ns;
	int64_t booted_s; /* wall clock less boot time: another one after a reboot */
	int64_t checked_s;
};

static int64_t wall_s(void)
{
	return clock_wall_ns() / CLOCK_NS_PER_S;
}

/* What a seal made now would say. */
static int seal_now(int dir, int64_t checked_s, struct seal *ret)
{
	struct file_stat st;
	int r = file_stat_at(dir, "data.mdb", &st);

	if (r)
		return r;
	*ret = (struct seal){
		.ino = st.ino,
		.size = st.size,
		.mtime_ns = st.mtime_ns,
		.ctime_ns = st.ctime_ns,
		.booted_s = wall_s() - clock_boot_ns() / CLOCK_NS_PER_S,
		.checked_s = checked_s,
	};
	return 0;
}

static int seal_read(int dir, struct seal *ret)
{
	char text[SEAL_BYTES_MAX];
	cleanup_close int fd = -1;
	size_t n;
	int r = file_open_read(dir, INDEX_SEAL, &fd);

	if (r == 0)
		r = file_read(fd, text, sizeof(text) - 1, 0, &n);
	if (r)
		return r;
	text[n] = '\0';
	r = sscanf(text,
		"syncd seal 1 %" SCNu64 " %" SCNu64 " %" SCNd64 " %" SCNd64 " %" SCNd64 " %" SCNd64
		"\n",
		&ret->ino, &ret->size, &ret->mtime_ns, &ret->ctime_ns, &ret->booted_s,
		&ret->checked_s);
	return r == 6 ? 0 : -EBADMSG;
}

static bool seal_holds(int dir, const struct seal *seal)
{
	struct seal now;

	return seal_now(dir, seal->checked_s, &now) == 0 && seal->ino == now.ino &&
	       seal->size == now.size && seal->mtime_ns == now.mtime_ns &&
	       seal->ctime_ns == now.ctime_ns &&
	       llabs(seal->booted_s - now.booted_s) <= BOOT_SLACK_S &&
	       seal->checked_s <= wall_s() && wall_s() - seal->checked_s < INDEX_SEAL_S;
}

int index_check_sealed(int dir, int64_t *ret_checked_s)
{
	struct seal seal;
	bool holds = seal_read(dir, &seal) == 0 && seal_holds(dir, &seal);
	int r = file_unlink(dir, INDEX_SEAL);

	if (holds && r == 0) {
		*ret_checked_s = seal.checked_s;
		return 0;
	}
	*ret_checked_s = wall_s();
	return index_check(dir, NULL);
}

/* Not synced: after a power loss it would not hold. */
void index_seal(int dir, int64_t checked_s)
{
	char text[SEAL_BYTES_MAX];
	cleanup_close int fd = -1;
	struct file_stat st;
	struct seal s;
	int n, r;

	r = file_unlink(dir, INDEX_SEAL);
	if ((r && r != FILE_VANISHED) || seal_now(dir, checked_s, &s) ||
		file_create(dir, INDEX_SEAL, 0600, &fd))
		return;
	n = snprintf(text, sizeof(text),
		"syncd seal 1 %" PRIu64 " %" PRIu64 " %" PRId64 " %" PRId64 " %" PRId64 " %" PRId64
		"\n",
		s.ino, s.size, s.mtime_ns, s.ctime_ns, s.booted_s, s.checked_s);
	r = file_stat_fd(dir, &st);
	if (r == 0 && geteuid() == 0 && st.uid) /* as all that stands in it */
		r = file_chown_fd(fd, st.uid, st.gid);
	if (r == 0)
		r = file_write(fd, text, (size_t)n, 0);
	if (r)
		file_unlink(dir, INDEX_SEAL);
}
