/* merkle/rebuild.c — see merkle/rebuild.h. */
#include "merkle/rebuild.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"

#define NOTE_NEW "rebuilt.new"
#define DATA "data.mdb"
#define DAY_S (24 * 60 * 60)
#define NOTE_BYTES_MAX 512

static int error_of(int r)
{
	return r == FILE_DENIED ? -EACCES : r > 0 ? -EIO : r;
}

static int sync_directory(int dir)
{
	int r = file_fsync(dir);

	return r == FILE_UNSUPPORTED ? 0 : error_of(r);
}

/* --- the note --- */

static int note_text(const struct rebuild *r, char ret[NOTE_BYTES_MAX])
{
	return snprintf(ret, NOTE_BYTES_MAX,
		"syncd rebuilt 1\naside %" PRIu64 "\ncount %" PRIu32 "\nsince %" PRId64 "\nlast %" PRId64 "\nwhy %s\n", r->aside, r->count,
		r->since_s, r->last_s, r->why);
}

/* Strict: what is written back must be the same bytes. */
static bool note_parse(const char *text, struct rebuild *ret)
{
	char again[NOTE_BYTES_MAX];
	struct rebuild r = {0};

	if (sscanf(text,
		    "syncd rebuilt 1\naside %" SCNu64 "\ncount %" SCNu32 "\nsince %" SCNd64 "\nlast %" SCNd64 "\nwhy %127[ -~]\n",
		    &r.aside, &r.count, &r.since_s, &r.last_s, r.why) != 5)
		return false;
	note_text(&r, again);
	if (strcmp(text, again) != 0)
		return false;
	*ret = r;
	return true;
}

int rebuild_read(int dir, struct rebuild *ret)
{
	char text[NOTE_BYTES_MAX];
	cleanup_close int fd = -1;
	size_t n;
	int r = file_open_read(dir, REBUILD_NOTE, &fd);

	if (r)
		return r < 0 ? r : REBUILD_NONE;
	r = file_read(fd, text, sizeof(text) - 1, 0, &n);
	if (r < 0)
		return r;
	text[n] = '\0';
	return note_parse(text, ret) ? 0 : REBUILD_NONE;
}

/* Given to whoever owns the directory, as all that stands in it is. */
static int write_note(int dir, const struct rebuild *note)
{
	char text[NOTE_BYTES_MAX];
	cleanup_close int fd = -1;
	struct file_stat st;
	int n = note_text(note, text), r;

	r = file_unlink(dir, NOTE_NEW);
	if (r && r != FILE_VANISHED)
		return error_of(r);
	r = file_create(dir, NOTE_NEW, 0600, &fd);
	if (r == 0)
		r = file_stat_fd(dir, &st);
	if (r == 0 && geteuid() == 0 && st.uid)
		r = file_chown_fd(fd, st.uid, st.gid);
	if (r == 0)
		r = file_write(fd, text, (size_t)n, 0);
	if (r == 0)
		r = file_fsync(fd);
	if (r == 0)
		r = file_rename_replace(dir, NOTE_NEW, dir, REBUILD_NOTE);
	return r ? error_of(r) : sync_directory(dir);
}

/* --- the steps --- */

int rebuild_begin(int dir, const char *why, int64_t now_s, struct rebuild *ret)
{
	struct rebuild note;
	struct file_stat st;
	int r = rebuild_read(dir, &note);

	if (r < 0)
		return r;
	if (r == REBUILD_NONE || now_s - note.since_s > DAY_S)
		note = (struct rebuild){.since_s = now_s};
	*ret = note;
	if (note.count >= REBUILD_PER_DAY)
		return REBUILD_TOO_OFTEN;
	r = file_stat_at(dir, DATA, &st);
	if (r)
		return error_of(r);
	note.aside = st.ino;
	note.count++;
	note.last_s = now_s;
	snprintf(note.why, sizeof(note.why), "%s", why);
	r = write_note(dir, &note);
	if (r == 0)
		*ret = note;
	return r;
}

int rebuild_set_aside(int dir, const struct rebuild *note)
{
	struct file_stat st;
	int r = file_stat_at(dir, DATA, &st);

	if (r == FILE_VANISHED || (r == 0 && st.ino != note->aside))
		return 0;
	if (r == 0)
		r = file_rename_replace(dir, DATA, dir, REBUILD_KEPT);
	return r ? error_of(r) : sync_directory(dir);
}

int rebuild_make_room(int dir)
{
	int r = file_unlink(dir, REBUILD_KEPT);

	return r == FILE_VANISHED ? 0 : error_of(r);
}

bool rebuild_kept(int dir)
{
	struct file_stat st;

	return file_stat_at(dir, REBUILD_KEPT, &st) == 0;
}

int rebuild_end(int dir, struct rebuild *in_out)
{
	struct rebuild done = *in_out;
	uint64_t free_bytes, total;
	struct file_stat st;
	int r = 0;

	if (file_stat_at(dir, REBUILD_KEPT, &st) == 0 && file_space(dir, &free_bytes, &total) == 0 && free_bytes < st.size)
		r = rebuild_make_room(dir);
	done.aside = 0;
	if (r == 0)
		r = write_note(dir, &done);
	if (r == 0)
		*in_out = done;
	return r;
}
