/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* The transient scope of a capsule: all its limits in one StartTransientUnit call. */

#include "daemon/host/systemd.h"

typedef struct ScopeSpec {
        const char *slice; /* "wrenn-<team>.slice" */
        const char *description;
        pid_t pid; /* its first process, alive */
        uint64_t memory_max_bytes;
        uint32_t cpu_percent; /* of one CPU */
        uint32_t cpu_weight;  /* 0: the default */
        uint32_t tasks_max;
        uint64_t stop_timeout_usec;
        bool kvm; /* /dev/kvm is needed */
} ScopeSpec;

/* done as of systemd_start_transient(). */
int scope_start(Systemd *s, const char *unit, const ScopeSpec *spec, UnitDone done, void *userdata,
                UnitCall **ret);
