/*
 * tests/sim/locks.c — read-write locks of a program of one thread, in which nobody waits for anybody: they are asked for with each
 * comparison of versions. A program's own definitions come before the shared library's. Not with ThreadSanitizer, which counts them.
 */
#include <pthread.h>

#if !defined(__SANITIZE_THREAD__)

int pthread_rwlock_rdlock(pthread_rwlock_t *lock)
{
	(void)lock;
	return 0;
}

int pthread_rwlock_wrlock(pthread_rwlock_t *lock)
{
	(void)lock;
	return 0;
}

int pthread_rwlock_unlock(pthread_rwlock_t *lock)
{
	(void)lock;
	return 0;
}

#endif
