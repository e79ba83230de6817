/* SPDX-License-Identifier: LGPL-2.1-or-later */

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

static const char *const kind_names[_JOB_KIND_MAX] = {
        [JOB_BUILD_TEMPLATE] = "build-template",
        [JOB_IMPORT_TEMPLATE] = "import-template",
        [JOB_PREPARE_KERNEL] = "prepare-kernel",
};

static const char *const state_names[_JOB_STATE_MAX] = {
        [JOB_WAITING] = "waiting",
        [JOB_RUNNING] = "running",
};

const char* job_kind_to_string(JobKind k) {
        assert(k >= 0 && k < _JOB_KIND_MAX);
        return kind_names[k];
}

const char* job_state_to_string(JobState s) {
        assert(s >= 0 && s < _JOB_STATE_MAX);
        return state_names[s];
}

uint32_t job_id(const Job *j) {
        return j->id;
}

const char* job_name(const Job *j) {
        return j->name;
}

JobKind job_kind(const Job *j) {
        return j->kind;
}

JobState job_state(const Job *j) {
        return j->state;
}

const char* job_target(const Job *j) {
        return j->target;
}

const char* job_unit(const Job *j) {
        return j->unit;
}

double job_progress(const Job *j) {
        return j->progress;
}

const char* job_step(const Job *j) {
        return strempty(j->step_text);
}

uint64_t job_started_usec(const Job *j) {
        return j->started_usec;
}

Job* job_free(Job *j) {
        if (!j)
                return NULL;

        j->worker = worker_unit_free(j->worker);
        if (j->manager->job_queue && j->manager->job_queue->running == j)
                j->manager->job_queue->running = NULL;
        if (hashmap_get(j->manager->jobs, j->name) == j)
                (void) hashmap_remove(j->manager->jobs, j->name);

        template_file_done(&j->file);
        fault_done(&j->fault);
        close_fd(j->fd);
        json_decref(j->result);
        free(j->target);
        free(j->unit);
        free(j->template_id);
        free(j->step_text);
        free(j);
        return NULL;
}

static void job_changed(Job *j, bool started) {
        static const char *const progress[] = { "Progress", "Step", NULL };
        static const char *const all[] = { "Progress", "Step", "State", "Started", NULL };

        manager_event(j->manager, job_changed, j, started ? all : progress);
}

/* --- one run of the worker ------------------------------------------------------------------- */

static void on_worker_progress(WorkerUnit *w, double fraction, const char *step, void *userdata) {
        Job *j = userdata;
        char text[WORKER_STEP_LEN_MAX];

        if (!(fraction >= 0))
                return;
        fraction = j->share_from + (j->share_to - j->share_from) * MIN(fraction, 1.0);
        (void) snprintf(text, sizeof(text), "%s", step);
        text[utf8_complete_prefix(text, strlen(text))] = '\0';

        if (fraction <= j->progress && streq_ptr(text, j->step_text))
                return;
        j->progress = MAX(j->progress, fraction);
        if (utf8_is_valid(text, strlen(text)) && !streq_ptr(text, j->step_text)) {
                (void) free_and_strdup(&j->step_text, text);
                manager_event(j->manager, job_log, j, LOG_INFO, text);
        }
        job_changed(j, /* started= */ false);
}

static void on_worker_done(WorkerUnit *w, int r, json_t *result, const Fault *fault, void *userdata) {
        Job *j = userdata;

        if (r < 0)
                (void) fault_set(&j->fault, fault->code, "%s", fault->message);
        else {
                json_decref(j->result);
                j->result = json_incref(result);
        }
        j->worker = worker_unit_free(j->worker); /* result and fault are its */
        job_advance(j, r);
}

static const WorkerHandlers worker_handlers = {
        .on_progress = on_worker_progress,
        .on_done = on_worker_done,
};

static int start_worker(Job *j, const char *unit, json_t *request, const char *directory, bool unprivileged,
                        bool network) {
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
                                              .fd = unprivileged ? j->fd : -EBADF,
                                              .directory = directory,
                                              .userns_first = unprivileged ? JOB_UID_FIRST : 0,
                                              .network = network,
                                              .memory_max_bytes = JOB_MEMORY_MAX,
                                              .runtime_max_usec = JOB_RUNTIME_MAX_USEC,
                              },
                              &worker_handlers, j, &j->worker);
        return r < 0 ? fault_set_errno(&j->fault, r, "Failed to start the worker") : 0;
}

/* --- the steps ------------------------------------------------------------------------------- */

/* 1: running; 0: not needed. */
static int step_kernel(Job *j) {
        Manager *m = j->manager;
        _cleanup_free_ char *directory = strjoin(m->state_dir, "/kernels"),
                            *agent = strjoin(m->lib_dir, "/wrenn-agent");
        _cleanup_free_ char *unit = asprintf_null("wrenn-job-%u-kernel.service", j->id);
        _cleanup_json_ json_t *request = NULL;
        int r;

        if (j->kind != JOB_PREPARE_KERNEL && manager_kernel_is_current(m))
                return 0;

        j->share_from = 0;
        j->share_to = j->kind == JOB_PREPARE_KERNEL ? 1 : KERNEL_SHARE;
        if (!directory || !agent || !unit)
                return fault_set_errno(&j->fault, -ENOMEM, "Failed to prepare the kernel");
        request = json_pack("{s:s, s:s, s:s, s:b}", "job", "prepare-kernel", "directory", WORKER_DIRECTORY,
                            "agent", agent, "refresh", 0);

        r = start_worker(j, j->kind == JOB_PREPARE_KERNEL ? j->unit : unit, request, directory,
                         /* unprivileged= */ false,
                         /* network= */ true);
        return r < 0 ? r : 1;
}

static json_t* build_request(const Job *j) {
        const TemplateFile *f = &j->file;

        return json_pack("{s:s, s:s, s:s, s:s*, s:s*, s:s*, s:s*, s:s*, s:o*, s:o*, s:o*}", "job",
                         "build-template", "directory", WORKER_DIRECTORY, "scratch", "/var/tmp", "suite",
                         f->suite, "variant", f->variant, "default_user", f->default_user, "hostname",
                         f->hostname, "compression", f->compression, "packages", json_from_strv(f->packages),
                         "exclude_paths", json_from_strv(f->exclude_paths), "include_paths",
                         json_from_strv(f->include_paths));
}

/* templates/.new-<id>, which the worker's root owns. */
static int make_directory(Job *j, char **ret_path) {
        Manager *m = j->manager;
        _cleanup_free_ char *name = strjoin(".new-", j->template_id), *path = NULL;
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
static int step_template(Job *j) {
        _cleanup_json_ json_t *request = NULL;
        _cleanup_free_ char *directory = NULL;
        int r;

        if (j->kind == JOB_PREPARE_KERNEL)
                return 0;

        j->share_from = j->progress > 0 ? KERNEL_SHARE : 0;
        j->share_to = 1;
        r = make_directory(j, &directory);
        if (r < 0)
                return fault_set_errno(&j->fault, r, "Failed to make a directory for the template");

        request = j->kind == JOB_BUILD_TEMPLATE
                                  ? build_request(j)
                                  : json_pack("{s:s, s:s, s:s}", "job", "import-template", "directory",
                                              WORKER_DIRECTORY, "scratch", "/var/tmp");
        r = start_worker(j, j->unit, request, directory, /* unprivileged= */ true,
                         /* network= */ j->kind == JOB_BUILD_TEMPLATE);
        j->fd = close_fd(j->fd);
        return r < 0 ? r : 1;
}

/* The name may have been taken while the worker was busy. */
static int step_take_over(Job *j) {
        const TemplateFile *f = &j->file;
        const char *digest = json_string_value(json_object_get(j->result, "digest"));
        bool build = j->kind == JOB_BUILD_TEMPLATE;
        int r;

        if (j->kind == JOB_PREPARE_KERNEL)
                return 0;
        if (!digest || strlen(digest) != JOB_DIGEST_LEN ||
            digest[strspn(digest, "0123456789abcdef")] != '\0')
                return fault_set(&j->fault, FAULT_INTERNAL, "The worker told no digest.");
        r = job_check_name(j->manager, j->kind, j->target, j->overwrite, &j->fault);
        if (r < 0)
                return r;

        return template_take_over(j->manager, j->template_id,
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
static void job_undo(Job *j) {
        Manager *m = j->manager;
        _cleanup_free_ char *name = j->template_id ? strjoin(".new-", j->template_id) : NULL;
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

static void job_end(Job *j, int r) {
        Manager *m = j->manager;
        const char *result = r >= 0 ? "done" : j->cancelled ? "canceled" : "failed";

        if (r < 0) {
                job_undo(j);
                if (!fault_is_set(&j->fault))
                        (void) fault_set_errno(&j->fault, r, "The job failed");
                log_warning("Job %u (%s %s) %s: %s", j->id, job_kind_to_string(j->kind), j->target, result,
                            j->fault.message);
        } else
                log_info("Job %u (%s %s) is done.", j->id, job_kind_to_string(j->kind), j->target);

        (void) hashmap_remove(m->jobs, j->name);
        if (m->job_queue->running == j)
                m->job_queue->running = NULL;
        manager_event(m, job_removed, j, result, r < 0 ? j->fault.message : "");
        (void) job_free(j);
        job_queue_pump(m);
}

void job_advance(Job *j, int r) {
        while (r >= 0) {
                if (j->cancelled)
                        r = fault_set(&j->fault, FAULT_CANCELED, "The job was cancelled.");
                else
                        switch (j->step++) {
                        case JOB_STEP_KERNEL:
                                r = step_kernel(j);
                                break;
                        case JOB_STEP_TEMPLATE:
                                r = step_template(j);
                                break;
                        case JOB_STEP_TAKE_OVER:
                                r = step_take_over(j);
                                break;
                        case JOB_STEP_DONE:
                                job_end(j, 0);
                                return;
                        }
                if (r > 0)
                        return; /* on_worker_done() calls us again */
        }
        job_end(j, r);
}

void job_start(Job *j) {
        j->manager->job_queue->running = j;
        j->state = JOB_RUNNING;
        j->started_usec = now_usec(CLOCK_REALTIME);
        log_info("Job %u (%s %s) begins.", j->id, job_kind_to_string(j->kind), j->target);
        job_changed(j, /* started= */ true);
        job_advance(j, 0);
}

void job_cancel(Job *j) {
        if (j->cancelled)
                return;

        j->cancelled = true;
        if (j->worker)
                worker_unit_cancel(j->worker);
        else
                job_queue_pump(j->manager); /* a waiting one: it ends at its next turn */
}
