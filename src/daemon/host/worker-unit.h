/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * wrenn-worker in a transient service of its own (docs/PROTOCOLS.md §4): the request goes in over a socket
 * (with one fd where the job needs one), progress and result come back over a pipe, the log goes to the
 * journal. The unit is closed to everything but one directory, seen by the worker as WORKER_DIRECTORY. Ended
 * or cancelled: nothing of it runs any more.
 */

#include <jansson.h>
#include <systemd/sd-event.h>

#include "basic/fault.h"
#include "basic/macro.h"
#include "daemon/host/systemd.h"

typedef struct WorkerUnit WorkerUnit;

#define WORKER_DIRECTORY "/run/wrenn/job"

typedef struct WorkerSpec {
        const char *unit; /* "wrenn-job-7.service" */
        const char *description;
        const char *launcher, *worker; /* programs */
        json_t *request;               /* borrowed */
        int fd;                        /* goes along with the request; borrowed; -EBADF: none */
        const char *directory;         /* on the host; NULL: none */
        /* host's uid of the worker's root, which owns the directory; 0: it is the host's root */
        uint32_t userns_first;
        bool network;
        uint64_t memory_max_bytes;
        uint64_t runtime_max_usec;
} WorkerSpec;

typedef struct WorkerHandlers {
        void (*on_progress)(WorkerUnit *w, double fraction, const char *step, void *userdata);
        /*
         * Once, when no process of the unit is left. r: 0 with result (an object, borrowed, ends with the
         * callback); else the errno of fault, which is always set. Free w here or later.
         */
        void (*on_done)(WorkerUnit *w, int r, json_t *result, const Fault *fault, void *userdata);
} WorkerHandlers;

/* handlers: borrowed. The start contract of style.md §7. -EINVAL, -ENOMEM, -errno. */
int worker_unit_start(Systemd *s, sd_event *e, const WorkerSpec *spec, const WorkerHandlers *handlers,
                      void *userdata, WorkerUnit **ret);

/* Kills the unit: on_done comes with -ECANCELED when nothing runs any more. */
void worker_unit_cancel(WorkerUnit *w);

/* on_done never runs; a unit still running is killed, unobserved. Returns NULL. */
WorkerUnit* worker_unit_free(WorkerUnit *w);
DEFINE_CLEANUP(WorkerUnit, worker_unit_free)
