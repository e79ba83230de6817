/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* What job.c (a job's steps) and job-queue.c (which job runs when, and what makes one) share; nobody else
 * includes it. */

#include <jansson.h>

#include "basic/limits.h"
#include "daemon/core/job.h"
#include "daemon/core/template-file.h"
#include "daemon/host/systemd.h"
#include "daemon/host/worker-unit.h"

#define JOB_NAME_LEN   16U
#define JOB_DIGEST_LEN 64U

typedef enum JobStep {
        JOB_STEP_KERNEL,
        JOB_STEP_TEMPLATE,
        JOB_STEP_TAKE_OVER,
        JOB_STEP_DONE,
} JobStep;

struct Job {
        Manager *manager; /* weak: outlives us */
        uint32_t id;
        char name[JOB_NAME_LEN];
        JobKind kind;
        JobState state;
        char *target;
        char *unit;
        double progress;
        char *step_text;
        uint64_t started_usec;

        TemplateFile file; /* of a build */
        int fd;            /* of an import, until the worker has it */
        bool overwrite;
        char *template_id; /* of the template to be; NULL: makes none */

        JobStep step;
        WorkerUnit *worker;
        double share_from, share_to; /* of the progress, of the worker at work */
        json_t *result;
        Fault fault;
        bool cancelled;
};

/* One a Manager, made with the first job. */
struct JobQueue {
        Job *running;
        bool ready; /* units of an earlier life are gone */
        sd_event_source *pump, *retry;
        UnitCall *list_call;
        UnitCall *stop_calls[JOB_ORPHANS_MAX];
        unsigned n_stopping;
};

Job* job_free(Job *j);
DEFINE_CLEANUP(Job, job_free)
void job_start(Job *j);
/* Goes on with the next step after one that ended with r; may free j. */
void job_advance(Job *j, int r);
/* Whether a job of that kind may make a template of that name now. */
int job_check_name(Manager *m, JobKind kind, const char *name, bool overwrite, Fault *reterr);
/* Removes what a killed prepare-kernel left; none may run. */
void job_sweep_kernels(Manager *m);
/* Soon, from the loop: the next waiting job starts when none runs; a cancelled waiting one ends. */
void job_queue_pump(Manager *m);
