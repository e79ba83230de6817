/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* What the kernel says of a unit's control group, on cgroup v2 and on v1 mounts. Read only: changes are PID
 * 1's. */

#include <sys/types.h>

#include "basic/macro.h"

#define CGROUP_PROCS_MAX 64U

/* Whether the group of unit in slice exists ("wrenn-a.slice" lies in "wrenn.slice"). */
bool cgroup_exists(const char *slice, const char *unit);
/* Its processes, at most n; the count (of those stored), 0 when it is gone or empty. */
size_t cgroup_processes(const char *slice, const char *unit, pid_t *ret, size_t n);
/* Bytes charged now; 0 when unknown. */
uint64_t cgroup_memory_current(const char *slice, const char *unit);
/* Processes killed by the kernel for its memory limit; 0 when unknown. */
uint64_t cgroup_oom_kills(const char *slice, const char *unit);
