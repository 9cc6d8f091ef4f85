/*
 * base/error.h — the error model and the cleanup attributes.
 *
 * Every function that can fail returns an int:
 *
 *   0    done
 *   < 0  a negative errno: this operation is over; callers pass it on unchanged
 *   > 0  an outcome that the module's header declares and the caller must handle; races of the file
 *        system (vanished, changed meanwhile, denied) are outcomes, not errors
 *
 * Outputs are named ret_… and are untouched unless the function returns 0 (or the header says
 * otherwise). Nothing below syncd/ prints, exits or logs above debug. Running out of memory is an
 * error like any other (-ENOMEM).
 *
 * Damaged or hostile bytes are -EBADMSG; a version we do not speak is -EPROTONOSUPPORT.
 */
#ifndef BASE_ERROR_H
#define BASE_ERROR_H

#include <stddef.h>

/* Cleanup attributes. Declare and initialise in one statement; give ownership away with steal(). */
#define cleanup(f) __attribute__((cleanup(f)))
#define cleanup_free cleanup(cleanup_free_p)
#define cleanup_close cleanup(cleanup_close_p)

/* Take the value out of a pointer variable that has a cleanup attribute, leaving NULL. */
#define steal(p)                                                                                   \
	({                                                                                         \
		__typeof__(p) steal_value_ = (p);                                                  \
		(p) = NULL;                                                                        \
		steal_value_;                                                                      \
	})

/* The same for descriptors, leaving -1. */
#define steal_fd(fd)                                                                               \
	({                                                                                         \
		int steal_fd_ = (fd);                                                              \
		(fd) = -1;                                                                         \
		steal_fd_;                                                                         \
	})

/* Define NAME_p(), usable as a cleanup attribute, from `void free_function(type *)`. */
#define DEFINE_CLEANUP(type, free_function)                                                        \
	static inline void free_function##_p(type *p)                                              \
	{                                                                                          \
		if (*p)                                                                            \
			free_function(*p);                                                         \
	}

#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))

void cleanup_free_p(void *p);  /* frees *(void **)p */
void cleanup_close_p(int *fd); /* closes *fd unless it is negative; keeps errno */

/* close(2) that keeps errno and ignores a negative descriptor. Returns -1, to be assigned back. */
int close_keep(int fd);

/* Make an array hold at least `need` elements (by doubling). 0 or -ENOMEM/-EOVERFLOW. */
int array_grow(void *array_p, size_t *cap, size_t need, size_t element_bytes);
static inline int array_reserve(void *array_p, size_t *cap, size_t need, size_t element_bytes)
{
	return need <= *cap ? 0 : array_grow(array_p, cap, need, element_bytes);
}
/* The order of two uint64_t, for qsort and bsearch. */
int array_compare_u64(const void *a, const void *b);

#endif
