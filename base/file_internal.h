/*
 * base/file_internal.h — for the versions of base/file: the real one, and the simulator's (tests/sim/fs_file.c). What
 * base/file.h says of errnos, names and paths stands once, for both, in file_shared.c; so does file_probe.
 */
#ifndef BASE_FILE_INTERNAL_H
#define BASE_FILE_INTERNAL_H

#include "base/file.h"

/* An errno as the header tells it: an outcome, or the negative errno. */
int file_outcome(int error);
/* 0 if these may stand as single components, or as a path beneath a root; -EINVAL, -ENAMETOOLONG. */
int file_check_name(const char *name);
int file_check_names(const char *name1, const char *name2);
int file_check_path(const char *path);
/* May a change get a ctime that no stat has shown before, however fast they come ("multigrain timestamps", Linux 6.13)? Only of kinds of
 * file systems whose stat is never of what this machine remembers, while another one changes the file. */
bool file_maybe_multigrain(int fd);

#endif
