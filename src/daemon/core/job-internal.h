/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* What job.c (all jobs), job-template.c (the steps of those of the worker), job-queue.c (which of these runs
 * when, and what makes one) and job-copy.c share; nobody else includes it. */

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

/* What kinds of jobs differ in. */
typedef struct JobOps {
        void (*cancel)(Job *j); /* job_end() follows, now or later */
        void (*done)(Job *j);   /* gives back what is beside the Job */
} JobOps;

/* The first member of a larger struct of one piece. */
struct Job {
        Manager *manager; /* weak: outlives us */
        const JobOps *ops;
        uint32_t id;
        char name[JOB_NAME_LEN];
        JobKind kind;
        JobState state;
        char *target;
        char *unit; /* NULL: none */
        double progress;
        uint64_t bytes;
        char *step_text;
        uint64_t started_usec;
        Fault fault;
        bool cancelled;
};

/* Takes the id and copies target; the caller frees j in every case. -ENOMEM */
int job_init(Job *j, Manager *m, const JobOps *ops, JobKind kind, const char *target);
Job* job_free(Job *j);
unsigned job_count(Manager *m, const JobOps *ops);
/* Whether fd is something that can be read to its end, or written: no directory, device or path handle.
 * name: of the argument, for the error. */
int job_check_fd(const char *name, int fd, bool write, Fault *reterr);
/* Into the table, which owns it from then on, and told. */
int job_register(Job *j, Fault *reterr);
void job_begin(Job *j);
void job_changed(Job *j, const char *const *properties);
/* Tells and frees it; r < 0: by its fault. */
void job_end(Job *j, int r);

/* --- jobs of the worker ---------------------------------------------------------------------- */

extern const JobOps template_job_ops;

typedef struct TemplateJob {
        Job job;
        TemplateFile file; /* of a build */
        int fd;            /* of an import, until the worker has it */
        bool overwrite;
        char *template_id; /* of the template to be; NULL: makes none */

        JobStep step;
        WorkerUnit *worker;
        double share_from, share_to; /* of the progress, of the worker at work */
        json_t *result;
} TemplateJob;

static inline TemplateJob* TEMPLATE_JOB(Job *j) {
        return container_of(j, TemplateJob, job);
}

static inline void template_job_freep(TemplateJob **t) {
        if (*t)
                (void) job_free(&(*t)->job);
}

/* One a Manager, made with the first job. */
struct JobQueue {
        TemplateJob *running;
        bool ready; /* units of an earlier life are gone */
        sd_event_source *pump, *retry;
        UnitCall *list_call;
        UnitCall *stop_calls[JOB_ORPHANS_MAX];
        unsigned n_stopping;
};

void template_job_start(TemplateJob *t);
/* Goes on with the next step after one that ended with r; may free t. */
void template_job_advance(TemplateJob *t, int r);
/* Whether a job of that kind may make a template of that name now. */
int job_check_name(Manager *m, JobKind kind, const char *name, bool overwrite, Fault *reterr);
/* Removes what a killed prepare-kernel left; none may run. */
void job_sweep_kernels(Manager *m);
/* Soon, from the loop: the next waiting job starts when none runs; a cancelled waiting one ends. */
void job_queue_pump(Manager *m);
