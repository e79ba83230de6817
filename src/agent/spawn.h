/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * Starts one program. The child shares our memory until it has exec'd (CLONE_VM|CLONE_VFORK), so the cost
 * does not grow with the agent; between clone and exec it makes system calls only. It leads its own session
 * and process group. It does not touch the actions of signals: whoever calls has no handlers, and ignores
 * nothing.
 */

#include <sys/resource.h>

#include "agent/users.h"
#include "basic/fault.h"
#include "basic/macro.h"

/* What every child gets, made once: no system calls for it later. */
typedef struct SpawnDefaults {
        rlim_t nofile_hard;
        uid_t uid; /* nothing to do for a child that stays the same */
        gid_t gid;
} SpawnDefaults;

void spawn_defaults_init(SpawnDefaults *d);

typedef struct SpawnRequest {
        const SpawnDefaults *defaults;
        char *const *argv;
        char *const *env;
        char *const *candidates; /* paths tried for argv[0], in order */
        const char *cwd;
        bool any_cwd; /* nobody asked for cwd: "/" will do where it cannot be entered */
        const User *user;
        int stdin_fd, stdout_fd, stderr_fd; /* borrowed, all >= 3 */
        bool terminal;                      /* stdin_fd becomes the controlling terminal */
} SpawnRequest;

/*
 * Returns the child's pid. A program that is not there or cannot be executed is no error: the child then
 * says so on its stderr as the shell does and exits with 127 or 126. FAULT_INVALID_ARGS: cwd cannot be
 * entered; FAULT_AGENT: no child could be made.
 */
int spawn_process(const SpawnRequest *q, Fault *reterr);
