/* transfer/intent.c — see transfer/intent.h. */
#include "transfer/intent.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "merkle/path.h"

#define VERSION 1
#define VERSION_MOVED 2 /* of those that have this fate alone: what knows version 1 reads all others */

enum {
	FLAG_ASIDE_THERE = 1,
	FLAG_PRESERVE_OWNER = 2,
	FLAG_HAD_ROW = 4,
	FLAG_RECORD = 8,
	FLAG_VERIFIED = 16,
	FLAGS_ALL = 31,
};

void intent_deinit(struct intent *i)
{
	free(i->path);
	free(i->aside);
	free(i->staged);
	free(i->displaced);
	record_deinit(&i->record);
	*i = (struct intent){0};
}

static void put_optional(struct buf *b, const char *text)
{
	put_string(b, text ? text : "", text ? strlen(text) : 0);
}

static char *get_optional(struct cursor *c, size_t max_bytes)
{
	char *text = get_text(c, max_bytes);

	if (text && !*text) {
		free(text);
		text = NULL;
	}
	return text;
}

static char *get_path(struct cursor *c)
{
	char *path = get_optional(c, FILE_PATH_BYTES_MAX);

	if (path && !path_valid(path))
		cursor_fail(c);
	return path;
}

static char *get_name(struct cursor *c)
{
	char *name = get_optional(c, FILE_NAME_BYTES_MAX);

	if (name && !path_component_valid(name, strlen(name)))
		cursor_fail(c);
	return name;
}

static uint8_t get_u8_max(struct cursor *c, uint8_t max)
{
	uint8_t v = get_u8(c);

	if (v > max)
		cursor_fail(c);
	return v;
}

void intent_put(struct buf *b, const struct intent *i)
{
	assert(i->op != INTENT_RECORD && i->path);
	put_u8(b, i->fate == INTENT_MOVED ? VERSION_MOVED : VERSION);
	put_u8(b, i->op);
	put_u8(b, i->fate);
	put_u8(b, i->becomes);
	put_u8(b, i->place);
	put_u8(b, (i->aside_there ? FLAG_ASIDE_THERE : 0) |
			  (i->preserve_owner ? FLAG_PRESERVE_OWNER : 0) |
			  (i->verified ? FLAG_VERIFIED : 0) | (i->had_row ? FLAG_HAD_ROW : 0) |
			  (i->has_record ? FLAG_RECORD : 0));
	put_optional(b, i->path);
	put_optional(b, i->aside);
	put_optional(b, i->staged);
	put_optional(b, i->displaced);
	put_u8(b, i->new_kind);
	stamp_put(b, &i->staged_stamp);
	put_u8(b, i->old_kind);
	stamp_put(b, &i->old);
	put_u64(b, i->seq);
	put_u64(b, i->source);
	if (i->has_record)
		record_put(b, &i->record);
}

/* What recovery relies on. */
static bool intent_sound(const struct intent *i)
{
	bool puts = i->op == INTENT_PUT || i->op == INTENT_PUT_ASIDE;

	if (!i->path || puts != (i->staged != NULL))
		return false;
	if (i->op == INTENT_PUT_ASIDE && (!i->aside || !i->has_record))
		return false;
	if (i->fate == INTENT_ASIDE && !i->aside)
		return false;
	if ((i->fate == INTENT_TRASH || i->fate == INTENT_ASIDE || i->fate == INTENT_MOVED) && !i->displaced)
		return false;
	if (i->fate == INTENT_MOVED && i->op != INTENT_REMOVE)
		return false;
	return i->has_record || i->becomes == INTENT_UNCHANGED;
}

void intent_get(struct cursor *c, struct intent *ret)
{
	uint8_t version = get_u8(c), flags;

	ret->op = get_u8_max(c, INTENT_SET);
	ret->fate = get_u8_max(c, INTENT_MOVED);
	if (version != (ret->fate == INTENT_MOVED ? VERSION_MOVED : VERSION))
		cursor_fail(c);
	ret->becomes = get_u8_max(c, INTENT_UNCHANGED);
	ret->place = get_u8_max(c, ROW_COLLIDES);
	flags = get_u8_max(c, FLAGS_ALL);
	ret->aside_there = flags & FLAG_ASIDE_THERE;
	ret->preserve_owner = flags & FLAG_PRESERVE_OWNER;
	ret->verified = flags & FLAG_VERIFIED;
	ret->had_row = flags & FLAG_HAD_ROW;
	ret->has_record = flags & FLAG_RECORD;
	ret->path = get_path(c);
	ret->aside = get_path(c);
	ret->staged = get_name(c);
	ret->displaced = get_name(c);
	ret->new_kind = get_u8(c);
	stamp_get(c, &ret->staged_stamp);
	ret->old_kind = get_u8(c);
	stamp_get(c, &ret->old);
	ret->seq = get_u64(c);
	ret->source = get_u64(c);
	if (ret->has_record)
		record_get(c, &ret->record);
	if (ret->op == INTENT_RECORD || ret->becomes == 0 || !intent_sound(ret))
		cursor_fail(c);
}
