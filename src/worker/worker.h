/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * A job of wrenn-worker (docs/PROTOCOLS.md §4): a JSON request in, progress on the way, one result object or
 * one fault. Jobs are plain blocking functions: the worker is a transient service, killed to cancel. A job
 * writes below a directory that its request names, under a temporary name, and renames at the end, so that a
 * kill leaves only rubbish of a known name
 * (".tmp-…"), which the next job and wrennd may remove.
 */

#include <jansson.h>

#include "basic/fault.h"
#include "basic/macro.h"

/* Where a job reports to. A part of a job gets a part of the way: from..to of the whole, both 0..1. */
typedef struct WorkerProgress {
        void (*report)(double fraction, const char *step, void *userdata); /* NULL: nobody listens */
        void *userdata;
        double from, to;
} WorkerProgress;

/* Reports fraction (0..1 of this part). step: what is being done, for a person ("Unpacking the kernel"). p
 * may be NULL. */
static inline void worker_progress(const WorkerProgress *p, double fraction, const char *step) {
        if (p && p->report)
                p->report(p->from + (p->to - p->from) * fraction, step, p->userdata);
}

/* The part of p from..to, for a job that runs another. */
static inline WorkerProgress worker_progress_part(const WorkerProgress *p, double from, double to) {
        if (!p)
                return (WorkerProgress) {};
        return (WorkerProgress) {
                .report = p->report,
                .userdata = p->userdata,
                .from = p->from + (p->to - p->from) * from,
                .to = p->from + (p->to - p->from) * to,
        };
}

/* request: borrowed. ret: the result object, the caller's. 0, or the errno of the fault set. */
typedef int (*WorkerJob)(json_t *request, const WorkerProgress *progress, json_t **ret, Fault *reterr);

/*
 * Job "prepare-kernel": makes sure <directory>/<version>/ holds the guest kernel and an initrd with the
 * agent as it is now. Request: "directory" (kernels, made when missing), "agent" (path of the static
 * wrenn-agent), optional "refresh" (bool: look for a newer kernel package; else an existing one is kept and
 * nothing is downloaded). Result: {"version","path","kernel","initrd","changed"}: "kernel" and "initrd" are
 * absolute paths, "path" their directory.
 */
int worker_prepare_kernel(json_t *request, const WorkerProgress *progress, json_t **ret, Fault *reterr);
