/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * Long work that a user sees: a template built or imported, the guest's kernel prepared, files copied into
 * and out of a capsule. A copy is done by the capsule's monitor, at once. A job of the others runs
 * wrenn-worker as wrenn-job-<n>.service, one at a time, the others wait; a build or import begins with the
 * kernel (wrenn-job-<n>-kernel.service) when there is none or the agent in it is an old one. What the worker
 * makes lies in templates/.new-<id> until it is complete; then it is taken over at once or, after a failure
 * or cancel, removed. Jobs do not outlive wrennd: units of an earlier life are stopped.
 */

#include "daemon/core/manager.h"

typedef enum JobKind {
        JOB_BUILD_TEMPLATE,
        JOB_IMPORT_TEMPLATE,
        JOB_PREPARE_KERNEL,
        JOB_COPY_TO,
        JOB_COPY_FROM,
        _JOB_KIND_MAX,
        _JOB_KIND_INVALID = -EINVAL,
} JobKind;

typedef enum JobState {
        JOB_WAITING,
        JOB_RUNNING,
        _JOB_STATE_MAX,
        _JOB_STATE_INVALID = -EINVAL,
} JobState;

const char* job_kind_to_string(JobKind k);   /* "build-template" … */
const char* job_state_to_string(JobState s); /* "waiting", "running" */

/* What everybody may look at; the rest is job.c's. Strings are owned by the job. */
uint32_t job_id(const Job *j);
const char* job_name(const Job *j); /* the id in decimal: its key in m->jobs */
JobKind job_kind(const Job *j);
JobState job_state(const Job *j);
/* name of the template; of the kernel's: "kernel"; of a copy: the capsule's id */
const char* job_target(const Job *j);
const char* job_unit(const Job *j); /* "": none */
double job_progress(const Job *j);  /* 0..1, never back */
uint64_t job_bytes(const Job *j);   /* copied so far */
const char* job_step(const Job *j);
uint64_t job_started_usec(const Job *j); /* CLOCK_REALTIME, 0: waits */

/*
 * New jobs; *ret is borrowed from m->jobs and there until the job_removed event. Faults: FAULT_NOT_FOUND (no
 * file of that name in templates.d), FAULT_ALREADY_EXISTS (the name is taken and may not be replaced),
 * FAULT_INVALID_STATE (another job makes that template), FAULT_QUOTA_EXCEEDED (JOBS_MAX), FAULT_INVALID_ARGS
 * (name), FAULT_BACKEND_UNAVAILABLE (shutting down).
 */
int job_build_template(Manager *m, const char *name, Job **ret, Fault *reterr);
/* fd: the archive, duplicated. overwrite: an imported template of that name is replaced. */
int job_import_template(Manager *m, const char *name, int fd, bool overwrite, Job **ret, Fault *reterr);
int job_prepare_kernel(Manager *m, Job **ret, Fault *reterr);

/*
 * A tar is unpacked below a path of the capsule, or made of one. fd: a file, pipe or stream socket to read
 * or write; borrowed, its flags stay as they are. FAULT_QUOTA_EXCEEDED (COPIES_MAX), FAULT_INVALID_ARGS,
 * FAULT_INVALID_STATE.
 */
int job_copy_to(Capsule *c, int fd, const char *path, Job **ret, Fault *reterr);
int job_copy_from(Capsule *c, const char *path, int fd, Job **ret, Fault *reterr);
/* The capsule of a copy; NULL for other jobs. */
Capsule* job_capsule(Job *j);
/* At the end of the program: all copies end, and their callers are told. */
void manager_end_copies(Manager *m);

/* The worker is killed and its files are removed, or the copy ends where it is; then the job goes with
 * "canceled". */
void job_cancel(Job *j);

/*
 * Once m->systemd is there: stops units of an earlier life, removes what they left, then lets jobs run.
 * Starts a job of its own when there is a kernel, but with another agent than ours.
 */
int manager_start_jobs(Manager *m);
/* Kills all; nobody is told. */
void manager_free_jobs(Manager *m);

/* Whether kernels/current is there and holds the agent of this installation. */
bool manager_kernel_is_current(Manager *m);
