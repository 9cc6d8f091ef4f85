/*
 * tests/unit/sim/fs_ops.h — random calls of base/file.h and what came of them, as text. Compiled twice: for the simulated
 * version, and (with real_names.h) as real_fs_ops_run for the kernel's.
 */
#ifndef TESTS_UNIT_SIM_FS_OPS_H
#define TESTS_UNIT_SIM_FS_OPS_H

#include <stdint.h>

/* `root` is an empty directory. Heap: one line a call, then the tree. Inode numbers and times are not told, but whether they
 * changed is. reflinks: as the file system says, so that both do the same. */
char *fs_ops_run(const char *root, uint64_t seed, unsigned calls);
char *real_fs_ops_run(const char *root, uint64_t seed, unsigned calls);

#endif
