/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* Starting a program: posix_spawn(3), so that no code of ours runs between fork and exec. */

#include <sys/types.h>

#include "basic/macro.h"

#define SPAWN_FD_FIRST 3 /* number of fds[0] in the child */
#define SPAWN_FDS_MAX  16U

/*
 * argv[0] is a path, or a name looked up in PATH. env: the whole environment. fds: borrowed, become
 * SPAWN_FD_FIRST… in the child; entries must be open. stdin is /dev/null, stdout and stderr our stderr; all
 * signals are at their defaults. The caller reaps *ret_pid by *ret_pidfd. 0, -ENOENT, -errno.
 */
int spawn_program(char *const argv[], char *const env[], const int *fds, size_t n_fds, pid_t *ret_pid,
                  int *ret_pidfd);
