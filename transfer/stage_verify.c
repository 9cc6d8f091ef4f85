/*
 * transfer/stage_verify.c — read and hash what is shared with the base, before it counts (P8); see transfer/stage_internal.h.
 *
 *   lease taken ── shared ── chunk read from the base, hashed ── lease holds? ── …
 *
 * Invariants:
 *  - A read lease that holds proves that since it was taken nobody had the base open for writing, or mapped: what was shared is what
 *    is read there. So the base is read, of which much may be in memory, and not the object, a new file, of which nothing is. What
 *    a chunk read from the base says, good or bad, counts only if the lease is seen to hold afterwards; else the object is read.
 *  - Who waits to write to the base waits for a chunk to be read and hashed at most: whoever sees it first gives the lease up, and nobody
 *    takes it again.
 *  - Threads change nothing of the stage. The caller does, once all is known to be good.
 */
#include "transfer/stage_internal.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>

#include "base/error.h"

#define BATCH_BYTES (2u << 20)	  /* are taken at a time: the file is read in order, nearly */

DEFINE_CLEANUP(struct pool *, pool_free)

/* --- the lease --- */

void stage_lease_take(struct stage_lease *l, const struct stage *s, int fd)
{
	*l = (struct stage_lease){.fd = fd, .held = store_abilities(s->store)->lease && file_lease_read(fd) == 0};
}

void stage_lease_end(struct stage_lease *l)
{
	if (l->held)
		(void)file_lease_release(l->fd); /* it held when it mattered */
	l->held = false;
}

bool stage_lease_holds(struct stage_lease *l)
{
	if (l->held && file_lease_broken(l->fd))
		stage_lease_end(l);
	return l->held;
}

/* --- a chunk --- */

int stage_read_chunk(const struct stage *s, int fd, const struct stage_chunk *c, uint8_t *buffer)
{
	struct hash hash;
	size_t got = 0;
	int r = file_read_as(fd, buffer, c->length, c->offset, stage_large(s), &got);

	if (r != 0)
		return r;
	hash_bytes(stage_algorithm(s), buffer, got, &hash);
	return got == c->length && hash_equal(&hash, &c->hash) ? 0 : STAGE_MISMATCH;
}

/* --- all of them --- */

static uint8_t *buffer_new(const struct stage *s)
{
	return malloc((size_t)4 << s->content.chunk_bits);
}

struct verifying {
	const struct stage *stage;
	pthread_mutex_t lock; /* guards what follows */
	struct stage_lease *lease; /* its fd never changes */
	size_t next; /* chunk that nobody has taken */
	int result;  /* of the first one that is not what it should be */
};

struct helper {
	struct pool_job job;
	struct verifying *of;
	uint8_t *buffer; /* owned */
};

static bool lease_holds(struct verifying *v)
{
	bool holds;

	pthread_mutex_lock(&v->lock);
	holds = stage_lease_holds(v->lease);
	pthread_mutex_unlock(&v->lock);
	return holds;
}

/* false: nothing is left, or it does not matter any more. */
static bool take_batch(struct verifying *v, size_t *ret_first, size_t *ret_end)
{
	const struct stage *s = v->stage;
	uint64_t bytes = 0;

	pthread_mutex_lock(&v->lock);
	*ret_first = v->next;
	while (v->result == 0 && v->next < s->n_chunks && bytes < BATCH_BYTES) {
		const struct stage_chunk *c = &s->chunks[v->next++];

		bytes += c->shared ? c->length : 0;
	}
	*ret_end = v->next;
	pthread_mutex_unlock(&v->lock);
	return bytes > 0;
}

static void fail(struct verifying *v, int r)
{
	pthread_mutex_lock(&v->lock);
	if (v->result == 0)
		v->result = r;
	pthread_mutex_unlock(&v->lock);
}

/* *leased: whether it held when that was asked last. */
static int verify_chunk(struct verifying *v, const struct stage_chunk *c, uint8_t *buffer, bool *leased)
{
	const struct stage *s = v->stage;
	int r = 0;

	if (*leased) {
		r = stage_read_chunk(s, v->lease->fd, c, buffer);
		*leased = lease_holds(v);
	}
	if (!*leased)
		r = stage_read_chunk(s, s->fd, c, buffer);
	return r == 0 && stage_unmarked_zeros(s, buffer, c->length) ? -EBADMSG : r;
}

static void verify_batches(struct verifying *v, uint8_t *buffer)
{
	bool leased = lease_holds(v);
	size_t i, end;
	int r = 0;

	while (r == 0 && take_batch(v, &i, &end))
		for (; r == 0 && i < end; i++)
			if (v->stage->chunks[i].shared)
				r = verify_chunk(v, &v->stage->chunks[i], buffer, &leased);
	if (r != 0)
		fail(v, r);
}

static void run_helper(struct pool_job *job)
{
	struct helper *h = (struct helper *)job;

	verify_batches(h->of, h->buffer);
}

/* With as many helpers as there is memory for. */
static int verify_together(struct verifying *v, struct pool *pool, uint8_t *buffer)
{
	struct helper helpers[POOL_THREADS_MAX];
	unsigned n = 0;

	for (; pool && n < v->stage->threads && n < POOL_THREADS_MAX; n++) {
		helpers[n] = (struct helper){.job.run = run_helper, .of = v, .buffer = buffer_new(v->stage)};
		if (!helpers[n].buffer)
			break;
		pool_add(pool, &helpers[n].job, true);
	}
	verify_batches(v, buffer);
	while (n-- > 0) {
		pool_cancel(pool, &helpers[n].job);
		free(helpers[n].buffer);
	}
	return v->result;
}

static uint64_t shared_bytes(const struct stage *s)
{
	uint64_t bytes = 0;

	for (size_t i = 0; i < s->n_chunks; i++)
		bytes += s->chunks[i].shared ? s->chunks[i].length : 0;
	return bytes;
}

/* What was shared is present, wherever it is to stand. */
static int take_verified(struct stage *s, uint8_t *buffer)
{
	int r = 0;

	for (size_t i = 0; r == 0 && i < s->n_chunks; i++) {
		struct stage_chunk *c = &s->chunks[i];
		bool all;

		if (!c->shared || c->present)
			continue;
		all = stage_all_there(s, &c->hash);
		r = all ? 0 : stage_read_chunk(s, s->fd, c, buffer); /* once more, to be written elsewhere as well */
		if (r == 0)
			r = stage_place(s, &c->hash, all ? NULL : buffer, c->length, c->offset);
	}
	for (size_t i = 0; i < s->n_chunks; i++)
		s->chunks[i].shared = false;
	return r;
}

int stage_verify_shared(struct stage *s, struct stage_lease *lease)
{
	cleanup(pool_free_p) struct pool *pool = stage_pool(s, shared_bytes(s));
	cleanup_free uint8_t *buffer = buffer_new(s);
	struct verifying v = {.stage = s, .lease = lease, .lock = PTHREAD_MUTEX_INITIALIZER};
	int r = buffer ? verify_together(&v, pool, buffer) : -ENOMEM;

	stage_lease_end(lease);
	return r == 0 ? take_verified(s, buffer) : r;
}
