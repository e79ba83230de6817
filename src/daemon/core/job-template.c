/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Jobs of wrenn-worker: their steps. */

#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>

#include "basic/fd.h"
#include "basic/files.h"
#include "basic/limits.h"
#include "basic/log.h"
#include "basic/strings.h"
#include "config.h"
#include "daemon/core/job-internal.h"
#include "daemon/core/template.h"
#include "daemon/core/trash.h"
#include "shared/event.h"
#include "shared/json-field.h"

#define KERNEL_SHARE 0.3 /* of the progress of a job that begins with the kernel */

/* --- one run of the worker ------------------------------------------------------------------- */

static void on_worker_progress(WorkerUnit *w, double fraction, const char *step, void *userdata) {
        static const char *const properties[] = { "Progress", "Step", NULL };
        TemplateJob *t = userdata;
        Job *j = &t->job;
        char text[WORKER_STEP_LEN_MAX];

        if (!(fraction >= 0))
                return;
        fraction = t->share_from + (t->share_to - t->share_from) * MIN(fraction, 1.0);
        (void) snprintf(text, sizeof(text), "%s", step);
        text[utf8_complete_prefix(text, strlen(text))] = '\0';

        if (fraction <= j->progress && streq_ptr(text, j->step_text))
                return;
        j->progress = MAX(j->progress, fraction);
        if (utf8_is_valid(text, strlen(text)) && !streq_ptr(text, j->step_text)) {
                (void) free_and_strdup(&j->step_text, text);
                manager_event(j->manager, job_log, j, LOG_INFO, text);
        }
        job_changed(j, properties);
}

static void on_worker_done(WorkerUnit *w, int r, json_t *result, const Fault *fault, void *userdata) {
        TemplateJob *t = userdata;

        if (r < 0)
                (void) fault_set(&t->job.fault, fault->code, "%s", fault->message);
        else {
                json_decref(t->result);
                t->result = json_incref(result);
        }
        t->worker = worker_unit_free(t->worker); /* result and fault are its */
        template_job_advance(t, r);
}

static const WorkerHandlers worker_handlers = {
        .on_progress = on_worker_progress,
        .on_done = on_worker_done,
};

static int start_worker(TemplateJob *t, const char *unit, json_t *request, const char *directory,
                        bool unprivileged, bool network) {
        Job *j = &t->job;
        Manager *m = j->manager;
        _cleanup_free_ char *launcher = strjoin(m->lib_dir, "/wrenn-launch"),
                            *worker = strjoin(m->lib_dir, "/wrenn-worker");
        _cleanup_free_ char *description = strjoin("wrenn job: ", job_kind_to_string(j->kind), " ",
                                                   j->target);
        int r;

        if (!launcher || !worker || !description || !request)
                return fault_set_errno(&j->fault, -ENOMEM, "Failed to start the worker");
        r = worker_unit_start(m->systemd, m->event,
                              &(WorkerSpec) {
                                              .unit = unit,
                                              .description = description,
                                              .launcher = launcher,
                                              .worker = worker,
                                              .request = request,
                                              .fd = unprivileged ? t->fd : -EBADF,
                                              .directory = directory,
                                              .userns_first = unprivileged ? JOB_UID_FIRST : 0,
                                              .network = network,
                                              .memory_max_bytes = JOB_MEMORY_MAX,
                                              .runtime_max_usec = JOB_RUNTIME_MAX_USEC,
                              },
                              &worker_handlers, t, &t->worker);
        return r < 0 ? fault_set_errno(&j->fault, r, "Failed to start the worker") : 0;
}

/* --- the steps ------------------------------------------------------------------------------- */

/* 1: running; 0: not needed. */
static int step_kernel(TemplateJob *t) {
        Job *j = &t->job;
        Manager *m = j->manager;
        _cleanup_free_ char *directory = strjoin(m->state_dir, "/kernels"),
                            *agent = strjoin(m->lib_dir, "/wrenn-agent");
        _cleanup_free_ char *unit = asprintf_null("wrenn-job-%u-kernel.service", j->id);
        _cleanup_json_ json_t *request = NULL;
        int r;

        if (j->kind != JOB_PREPARE_KERNEL && manager_kernel_is_current(m))
                return 0;

        t->share_from = 0;
        t->share_to = j->kind == JOB_PREPARE_KERNEL ? 1 : KERNEL_SHARE;
        if (!directory || !agent || !unit)
                return fault_set_errno(&j->fault, -ENOMEM, "Failed to prepare the kernel");
        request = json_pack("{s:s, s:s, s:s, s:b}", "job", "prepare-kernel", "directory", WORKER_DIRECTORY,
                            "agent", agent, "refresh", 0);

        r = start_worker(t, j->kind == JOB_PREPARE_KERNEL ? j->unit : unit, request, directory,
                         /* unprivileged= */ false,
                         /* network= */ true);
        return r < 0 ? r : 1;
}

static json_t* build_request(const TemplateJob *t) {
        const TemplateFile *f = &t->file;

        return json_pack("{s:s, s:s, s:s, s:s*, s:s*, s:s*, s:s*, s:s*, s:o*, s:o*, s:o*}", "job",
                         "build-template", "directory", WORKER_DIRECTORY, "scratch", "/var/tmp", "suite",
                         f->suite, "variant", f->variant, "default_user", f->default_user, "hostname",
                         f->hostname, "compression", f->compression, "packages", json_from_strv(f->packages),
                         "exclude_paths", json_from_strv(f->exclude_paths), "include_paths",
                         json_from_strv(f->include_paths));
}

/* templates/.new-<id>, which the worker's root owns. */
static int make_directory(TemplateJob *t, char **ret_path) {
        Manager *m = t->job.manager;
        _cleanup_free_ char *name = strjoin(".new-", t->template_id), *path = NULL;
        _cleanup_close_ int templates_fd = -EBADF, fd = -EBADF;

        path = name ? strjoin(m->state_dir, "/templates/", name) : NULL;
        if (!path)
                return -ENOMEM;
        templates_fd = open_dir_at(m->state_fd, "templates", /* create= */ false, 0);
        if (templates_fd < 0)
                return templates_fd;
        fd = open_dir_at(templates_fd, name, /* create= */ true, 0755);
        if (fd < 0)
                return fd;
        if (fchown(fd, JOB_UID_FIRST, JOB_UID_FIRST) < 0)
                return -errno;

        *ret_path = TAKE_PTR(path);
        return 0;
}

/* 1: running; 0: nothing to be done. */
static int step_template(TemplateJob *t) {
        Job *j = &t->job;
        _cleanup_json_ json_t *request = NULL;
        _cleanup_free_ char *directory = NULL;
        int r;

        if (j->kind == JOB_PREPARE_KERNEL)
                return 0;

        t->share_from = j->progress > 0 ? KERNEL_SHARE : 0;
        t->share_to = 1;
        r = make_directory(t, &directory);
        if (r < 0)
                return fault_set_errno(&j->fault, r, "Failed to make a directory for the template");

        request = j->kind == JOB_BUILD_TEMPLATE
                                  ? build_request(t)
                                  : json_pack("{s:s, s:s, s:s}", "job", "import-template", "directory",
                                              WORKER_DIRECTORY, "scratch", "/var/tmp");
        r = start_worker(t, j->unit, request, directory, /* unprivileged= */ true,
                         /* network= */ j->kind == JOB_BUILD_TEMPLATE);
        t->fd = close_fd(t->fd);
        return r < 0 ? r : 1;
}

/* The name may have been taken while the worker was busy. */
static int step_take_over(TemplateJob *t) {
        Job *j = &t->job;
        const TemplateFile *f = &t->file;
        const char *digest = json_string_value(json_object_get(t->result, "digest"));
        bool build = j->kind == JOB_BUILD_TEMPLATE;
        int r;

        if (j->kind == JOB_PREPARE_KERNEL)
                return 0;
        if (!digest || strlen(digest) != JOB_DIGEST_LEN ||
            digest[strspn(digest, "0123456789abcdef")] != '\0')
                return fault_set(&j->fault, FAULT_INTERNAL, "The worker told no digest.");
        r = job_check_name(j->manager, j->kind, j->target, t->overwrite, &j->fault);
        if (r < 0)
                return r;

        return template_take_over(j->manager, t->template_id,
                                  &(TemplateSpec) {
                                                  .name = j->target,
                                                  .aliases = f->aliases,
                                                  .type = TEMPLATE_BASE,
                                                  .digest = digest,
                                                  .default_user = build ? f->default_user : NULL,
                                                  .env = f->env,
                                                  .platform = build,
                                                  .default_vcpus = f->default_vcpus,
                                                  .default_memory_bytes = f->default_memory_bytes,
                                  },
                                  /* ret= */ NULL, &j->fault);
}

/* What a failed or cancelled worker left. */
static void undo(TemplateJob *t) {
        Manager *m = t->job.manager;
        _cleanup_free_ char *name = t->template_id ? strjoin(".new-", t->template_id) : NULL;
        _cleanup_close_ int templates_fd = -EBADF;
        int r;

        job_sweep_kernels(m);
        if (!name)
                return;
        templates_fd = open_dir_at(m->state_fd, "templates", /* create= */ false, 0);
        r = templates_fd < 0 ? templates_fd : trash_put(m->trash, templates_fd, name, /* durable= */ false);
        if (r < 0)
                (void) log_warning_errno(r, "Failed to remove '%s', ignoring: %m", name);
}

static void template_job_end(TemplateJob *t, int r) {
        Manager *m = t->job.manager;

        if (r < 0)
                undo(t);
        job_end(&t->job, r);
        job_queue_pump(m);
}

void template_job_advance(TemplateJob *t, int r) {
        while (r >= 0) {
                if (t->job.cancelled)
                        r = fault_set(&t->job.fault, FAULT_CANCELED, "The job was cancelled.");
                else
                        switch (t->step++) {
                        case JOB_STEP_KERNEL:
                                r = step_kernel(t);
                                break;
                        case JOB_STEP_TEMPLATE:
                                r = step_template(t);
                                break;
                        case JOB_STEP_TAKE_OVER:
                                r = step_take_over(t);
                                break;
                        case JOB_STEP_DONE:
                                template_job_end(t, 0);
                                return;
                        }
                if (r > 0)
                        return; /* on_worker_done() calls us again */
        }
        template_job_end(t, r);
}

void template_job_start(TemplateJob *t) {
        t->job.manager->job_queue->running = t;
        job_begin(&t->job);
        template_job_advance(t, 0);
}

static void template_job_cancel(Job *j) {
        TemplateJob *t = TEMPLATE_JOB(j);

        if (t->worker)
                worker_unit_cancel(t->worker);
        else
                job_queue_pump(j->manager); /* a waiting one: it ends at its next turn */
}

static void template_job_done(Job *j) {
        TemplateJob *t = TEMPLATE_JOB(j);

        t->worker = worker_unit_free(t->worker);
        if (j->manager->job_queue && j->manager->job_queue->running == t)
                j->manager->job_queue->running = NULL;
        template_file_done(&t->file);
        t->fd = close_fd(t->fd);
        json_decref(t->result);
        free(t->template_id);
}

const JobOps template_job_ops = { .cancel = template_job_cancel, .done = template_job_done };
