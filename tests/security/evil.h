/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * evil-vmm: what a VMM would try that has fallen to its guest. Each probe tries one thing and says what the
 * kernel answered: an errno, 0 when it worked, PROBE_SIGNAL + n when the attempt was answered by a signal.
 * The table holds the one answer that is right; any other, a harder one, too, makes the test fail, so that
 * nobody weakens (or changes) the jail without noticing.
 */

#include <sys/types.h>

#include "basic/macro.h"

#define PROBE_SIGNAL 1000

/* What the test tells us in /params, "name=value" a line. */
typedef struct Params {
        uid_t uid;                /* ours, as it should be */
        pid_t daemon;             /* a process of root outside */
        pid_t neighbour;          /* a process of another capsule's uid */
        char neighbour_file[256]; /* its layer, by its path on the host */
        char control_path[256];   /* a control socket, by its path on the host */
        char abstract[64];        /* an abstract socket somebody listens on outside */
        int shm_key;              /* of a System V segment outside, mode 0666 */
        char own_root[64];        /* first directory of our own path */
        uint64_t fsize;           /* our RLIMIT_FSIZE */
        bool direct;              /* started by the launcher itself, not by the monitor */
} Params;

typedef struct Probe {
        const char *name;
        int (*run)(const Params *p);
        int expected;
} Probe;

extern const Probe probes_files[], probes_privileges[], probes_processes[], probes_network[],
                probes_resources[], probes_state[];

/* -1 becomes errno, all else 0. */
static inline int answer(long r) {
        return r < 0 ? errno : 0;
}

/* Runs f in a child; its exit status, or PROBE_SIGNAL + n. */
int in_child(int (*f)(const Params *p), const Params *p);
