/*
 * tests/sim/heap.c — malloc for a program of one thread that lives for thousands of short worlds: lists of free blocks by size,
 * and no locks, bins or merging. (A fifth of a history's time is libc's malloc otherwise.) What is larger than a piece, or asked for
 * with zeros and large, is of the kernel, which gives zeros: its pages go back, and of one size its place is kept. Not with sanitizers,
 * which bring their own.
 *
 *   16 bytes: the block's class | the block …
 */
#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)

#define STEP 16 /* bytes: of the small classes, and of the header */
#define SMALL_BYTES 1024
#define SMALL_CLASSES (SMALL_BYTES / STEP + 1)
#define CLASSES (SMALL_CLASSES + 64) /* then each power of two */
#define PIECE_BYTES ((size_t)4 << 20) /* a context of zstd's is nearly 2 MiB, and LMDB's list of free pages a little more than 1 */
#define ZEROS_BYTES ((size_t)1 << 20) /* LMDB has 2 MiB of them for each index, and uses some bytes */
#define ARENA_BYTES ((size_t)64 << 20)
#define HUGE_BYTES ((size_t)2 << 20)

struct header {
	size_t class, bytes; /* CLASSES: mapped by itself, so many bytes */
};

_Static_assert(sizeof(struct header) == STEP, "what follows the header is aligned");

static void *heap_free[CLASSES];
static void *large_free; /* places without pages, of: */
static size_t large_bytes;
static uint8_t *arena, *arena_end;

/* What libc asks the kernel for itself does not pass the simulator either. */
static void *map(size_t n)
{
	long at = syscall(SYS_mmap, NULL, n, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	return at == -1 ? NULL : (void *)at;
}

static size_t class_of(size_t n)
{
	return n <= SMALL_BYTES ? (n + !n + STEP - 1) / STEP : SMALL_CLASSES + 64 - (size_t)__builtin_clzl(n - 1);
}

static size_t class_bytes(size_t class)
{
	return class < SMALL_CLASSES ? class * STEP : (size_t)1 << (class - SMALL_CLASSES);
}

static void *with_header(uint8_t *at, size_t class, size_t bytes)
{
	*(struct header *)at = (struct header){class, bytes};
	return at + STEP;
}

static void *map_large(size_t n)
{
	uint8_t *at;
	void **p;

	if (large_free && n == large_bytes) {
		p = large_free;
		large_free = *p;
		*p = NULL; /* zeros, as all the rest */
		return p;
	}
	at = n < SIZE_MAX - STEP ? map(n + STEP) : NULL;
	return at ? with_header(at, CLASSES, n) : NULL;
}

static void unmap_large(struct header *h)
{
	size_t n = h->bytes;
	void **p;

	if (large_free && n != large_bytes) {
		syscall(SYS_munmap, h, n + STEP);
		return;
	}
	syscall(SYS_madvise, h, n + STEP, MADV_DONTNEED);
	p = with_header((uint8_t *)h, CLASSES, n);
	*p = large_free;
	large_free = p;
	large_bytes = n;
}

/* In huge pages, where there are some: there is much in it, and little of each. */
static bool new_arena(void)
{
	uint8_t *at = map(ARENA_BYTES + HUGE_BYTES);

	arena = arena_end = NULL;
	if (!at)
		return false;
	arena = at + (HUGE_BYTES - (uintptr_t)at % HUGE_BYTES) % HUGE_BYTES;
	arena_end = arena + ARENA_BYTES;
	syscall(SYS_madvise, arena, ARENA_BYTES, MADV_HUGEPAGE);
	return true;
}

static void *carve(size_t class)
{
	size_t n = class_bytes(class) + STEP;
	uint8_t *at;

	if ((size_t)(arena_end - arena) < n && !new_arena())
		return NULL;
	at = arena;
	arena += n;
	return with_header(at, class, n - STEP);
}

/* Under a name of its own: what compilers know of malloc would make calloc call itself. */
static void *take(size_t n)
{
	size_t class = class_of(n);
	void *p;

	if (n > PIECE_BYTES) {
		p = map_large(n);
	} else if (heap_free[class]) {
		p = heap_free[class];
		heap_free[class] = *(void **)p;
	} else {
		p = carve(class);
	}
	if (!p)
		errno = ENOMEM;
	return p;
}

void *malloc(size_t n)
{
	return take(n);
}

static struct header *header_of(void *p)
{
	return (struct header *)((uint8_t *)p - STEP);
}

void free(void *p)
{
	struct header *h = p ? header_of(p) : NULL;

	if (!h)
		return;
	if (h->class == CLASSES) {
		unmap_large(h);
		return;
	}
	*(void **)p = heap_free[h->class];
	heap_free[h->class] = p;
}

void *calloc(size_t n, size_t each)
{
	size_t bytes;
	void *p;

	if (__builtin_mul_overflow(n, each, &bytes)) {
		errno = ENOMEM;
		return NULL;
	}
	if (bytes <= ZEROS_BYTES) {
		p = take(bytes);
		return p ? memset(p, 0, bytes) : p;
	}
	p = map_large(bytes);
	if (!p)
		errno = ENOMEM;
	return p;
}

void *realloc(void *p, size_t n)
{
	size_t had = p ? header_of(p)->bytes : 0;
	void *moved;

	if (p && n <= had)
		return p;
	moved = take(n);
	if (!moved)
		return NULL;
	if (p)
		memcpy(moved, p, n < had ? n : had);
	free(p);
	return moved;
}

#endif
